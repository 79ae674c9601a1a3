"""
The tokenizer in a checkpoint's folder, as the content of a tokenizer.json.

Older checkpoints have no such file, but the vocabulary alone: vocab.txt, or vocab.json and
merges.txt. What the vocabulary does not say stands in config.json, tokenizer_config.json,
special_tokens_map.json and added_tokens.json.
"""

import os

from nanosentiment.files import read_json, read_text

BERT_TOKENS = {
    'unk_token': '[UNK]',
    'sep_token': '[SEP]',
    'pad_token': '[PAD]',
    'cls_token': '[CLS]',
    'mask_token': '[MASK]',
}
ROBERTA_TOKENS = {
    'bos_token': '<s>',
    'eos_token': '</s>',
    'unk_token': '<unk>',
    'sep_token': '</s>',
    'pad_token': '<pad>',
    'cls_token': '<s>',
    'mask_token': '<mask>',
}
ROLES = tuple(ROBERTA_TOKENS)  # in the order in which transformers numbers new special tokens
MPNET_TOKENS = ROBERTA_TOKENS | {'unk_token': '[UNK]'}
GPT2_TOKENS = {
    'bos_token': '<|endoftext|>',
    'eos_token': '<|endoftext|>',
    'unk_token': '<|endoftext|>',
}

# model_type in config.json -> its special tokens, where tokenizer_config.json names no others
WORDPIECE_MODELS = {
    'bert': BERT_TOKENS,
    'distilbert': BERT_TOKENS,
    'electra': BERT_TOKENS,
    'mpnet': MPNET_TOKENS,
}
BPE_MODELS = {
    'roberta': ROBERTA_TOKENS,
    'gpt2': GPT2_TOKENS,
}
SENTENCEPIECE_FILES = ('sentencepiece.bpe.model', 'spiece.model', 'tokenizer.model')


def read_tokenizer_json(folder):
    """
    The content of a folder's tokenizer.json, or one built from vocab.txt, or from vocab.json and
    merges.txt. ValueError if the folder has none of them.
    """
    files = set(os.listdir(folder))
    if 'tokenizer.json' in files:
        return read_text(os.path.join(folder, 'tokenizer.json'), 'fetch the file again')
    is_wordpiece = 'vocab.txt' in files
    is_bpe = {'vocab.json', 'merges.txt'} <= files
    if is_wordpiece or is_bpe:
        try:
            import tokenizers
        except ImportError as error:
            raise ValueError(f'{folder}: {error}; pip install tokenizers') from None
        try:
            if is_wordpiece:
                return build_wordpiece(tokenizers, folder).to_str()
            return build_bpe(tokenizers, folder).to_str()
        except ValueError:
            raise
        except Exception as error:  # the package raises no other class
            raise ValueError(f'{folder}: {error}; fetch its vocabulary again') from None

    for name in SENTENCEPIECE_FILES:
        if name in files:
            raise ValueError(
                f'{folder} has a {name}, which is not read here, and no tokenizer.json; make one '
                f'with transformers: AutoTokenizer.from_pretrained({folder!r})'
                f'.save_pretrained({folder!r})'
            )
    raise ValueError(
        f'{folder} has no tokenizer; add its tokenizer.json, its vocab.txt, or its vocab.json and '
        'merges.txt'
    )


def build_wordpiece(tokenizers, folder):
    """BERT's kind of tokenizer, from vocab.txt -> tokenizers.Tokenizer"""
    model_type = read_model_type(folder, WORDPIECE_MODELS, 'vocab.txt')
    config = read_if_there(folder, 'tokenizer_config.json')
    special_tokens, added_tokens = read_special_tokens(
        tokenizers, folder, WORDPIECE_MODELS[model_type]
    )

    WordPiece = tokenizers.models.WordPiece
    vocab = WordPiece.read_file(os.path.join(folder, 'vocab.txt'))
    coder = tokenizers.Tokenizer(WordPiece(vocab, unk_token=special_tokens['unk_token']))
    # what is missing has the default that transformers gives it, for cased models, too
    coder.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get('tokenize_chinese_chars', True),
        strip_accents=config.get('strip_accents'),  # None: if it lowercases
        lowercase=config.get('do_lower_case', True),
    )
    coder.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    coder.decoder = tokenizers.decoders.WordPiece()
    coder.add_tokens(added_tokens)
    add_template(tokenizers, coder, special_tokens, has_types=model_type != 'mpnet')
    return coder


def build_bpe(tokenizers, folder):
    """GPT-2's kind of tokenizer, from vocab.json and merges.txt -> tokenizers.Tokenizer"""
    model_type = read_model_type(folder, BPE_MODELS, 'vocab.json')
    config = read_if_there(folder, 'tokenizer_config.json')
    special_tokens, added_tokens = read_special_tokens(tokenizers, folder, BPE_MODELS[model_type])

    BPE = tokenizers.models.BPE
    vocab, merges = BPE.read_file(
        os.path.join(folder, 'vocab.json'), os.path.join(folder, 'merges.txt')
    )
    coder = tokenizers.Tokenizer(BPE(vocab, merges))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=config.get('add_prefix_space', False)
    )
    coder.decoder = tokenizers.decoders.ByteLevel()
    coder.add_tokens(added_tokens)
    if model_type != 'gpt2':
        add_template(tokenizers, coder, special_tokens, has_types=False)
    return coder


def add_template(tokenizers, coder, special_tokens, has_types):
    """
    Puts special tokens around texts and pairs: <s> A </s> and <s> A </s> </s> B </s>; or, if the
    second text has token type 1, [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
    """
    cls, sep = special_tokens['cls_token'], special_tokens['sep_token']
    single = [cls, '$A', sep]
    if has_types:
        pair = [cls, '$A', sep, '$B:1', f'{sep}:1']
    else:
        pair = [cls, '$A', sep, sep, '$B', sep]
    coder.post_processor = tokenizers.processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, coder.token_to_id(token)) for token in (cls, sep)],
    )


def read_model_type(folder, known, file):
    """model_type in a folder's config.json. ValueError unless it is one of the known."""
    model_type = read_if_there(folder, 'config.json').get('model_type')
    if model_type not in known:
        raise ValueError(
            f'{folder}: {file} alone does not say which special tokens go around a text, and '
            f'model_type in config.json is {model_type}, none of {", ".join(known)}; add a '
            'tokenizer.json'
        )
    return model_type


def read_special_tokens(tokenizers, folder, defaults):
    """
    -> {'cls_token': '[CLS]', ...} and the tokens to add to the vocabulary, as tokenizers.AddedToken

    defaults are the special tokens that no file names. What is in the vocabulary already keeps its
    id, and others get the next ones, numbered as transformers does.
    """
    AddedToken = tokenizers.AddedToken
    config = read_if_there(folder, 'tokenizer_config.json')
    extra_tokens = read_extra_tokens(config)
    added_tokens = []
    if 'added_tokens_decoder' in config:
        # newer versions of transformers write all that is to know here, {'30522': {...}}
        decoder = {int(i): token for i, token in config['added_tokens_decoder'].items()}
        for i in sorted(decoder):
            added_tokens.append(AddedToken(**decoder[i]))
    else:
        special_tokens_map = read_if_there(folder, 'special_tokens_map.json')
        config = config | special_tokens_map
        named_tokens = {token_text(config.get(role)) for role in ROLES}
        named_tokens.update(extra_tokens)
        ids = read_if_there(folder, 'added_tokens.json')  # {'<ORG>': 30522}
        for token in sorted(ids, key=ids.get):
            added_tokens.append(AddedToken(token, special=token in named_tokens))
        extra_tokens = extra_tokens or read_extra_tokens(special_tokens_map)

    special_tokens = {}
    for role in ROLES:
        token = token_text(config.get(role)) or defaults.get(role)
        if token is not None:
            special_tokens[role] = token
    present = {token.content for token in added_tokens}
    for token in [*special_tokens.values(), *extra_tokens]:
        if token not in present:
            present.add(token)
            added_tokens.append(AddedToken(token, special=True))
    return special_tokens, added_tokens


def read_extra_tokens(config):
    """The special tokens that have no role, such as ['<ORG>'], of a file's content."""
    tokens = config.get('extra_special_tokens') or config.get('additional_special_tokens') or []
    if isinstance(tokens, dict):
        tokens = tokens.values()
    return [token_text(token) for token in tokens]


def token_text(token):
    """'[CLS]' of {'content': '[CLS]', 'lstrip': False, ...}, or of '[CLS]' itself."""
    if isinstance(token, dict):
        return token['content']
    return token


def is_gpt2_classifier(folder):
    """
    Whether a folder holds a GPT-2 that transformers has trained to classify.

    Its head reads the last token of the text itself, because nothing is appended there.
    """
    config = read_if_there(folder, 'config.json')
    architectures = config.get('architectures') or ['']
    is_classifier = architectures[0].endswith('ForSequenceClassification')
    return config.get('model_type') == 'gpt2' and is_classifier


def read_if_there(folder, name):
    """A JSON file of a checkpoint's folder -> dict, {} if there is none."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return {}
    content = read_json(path, 'fetch the file again')
    if not isinstance(content, dict):
        raise ValueError(f'{path} is no JSON object; fetch the file again')
    return content
