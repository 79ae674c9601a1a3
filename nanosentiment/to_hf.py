"""
A run as a folder that transformers reads: AutoModelForSequenceClassification, AutoTokenizer and
pipeline('text-classification') then give the run's logits and labels.

    config.json, model.safetensors          the model, as one of their classes
    tokenizer.json, tokenizer_config.json   the tokenizer, with all that we put around a text
    README.md                               the model card, see hf_card.py

Written with pretrained.py's tables of names, read from right to left. Neither transformers nor
safetensors is needed for it, but the package tokenizers is.
"""

import contextlib
import json
import os
import shutil

import numpy as np
import torch
import torch.nn.functional as F

from nanosentiment.checkpoint import Classifier, is_run
from nanosentiment.cleaning import STEPS
from nanosentiment.files import read_json, write_json
from nanosentiment.hf_card import hf_card
from nanosentiment.pretrained import (
    EXPORTED,
    FAMILIES,
    folder_checksums,
    hf_names,
    module_of,
    without_layer,
)
from nanosentiment.tokenizer import END_OF_TEXT, parse_ranks

FILES = (
    'README.md',
    'config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
)
PAD_TOKEN = '<|pad|>'  # for padding, where the vocabulary has no token that can be used
MAX_DIFFERENCE = 1e-5  # between logits up to 1; in proportion to the largest one above that

ONNX_REMEDY = 'export it with --to=onnx, which takes any classifier'

# what is compared before a folder gets its name; the long text is cut
CHECK_TEXTS = (
    'I love it, thank you so much!',
    'It never arrived. <b>Twice</b> I called, and nobody answers :(',
    '  Two  lines,\r\n\r\n and a <|endoftext|> [SEP] </s> that somebody typed. ',
    'Çok güzel, 很好, отлично 👍🏽',
    'x',
    'The screen is beautiful, but the battery is a disappointment. ' * 200,
)


def export(classifier, folder):
    """
    Writes a Classifier as a folder for transformers, whole or not at all.

    The folder is replaced if it is an earlier export, and refused if it is anything else. Before it
    gets its name it is loaded again, and its logits are compared with the classifier's. Returns

    files                  their names
    n_params               number of parameters in model.safetensors
    checked                number of texts compared
    max_logit_difference   the largest difference between their logits

    ValueError if the classifier is not open as it must be, if no class of transformers computes its
    model, if it cuts texts in a way that theirs do not, or if the folder cannot be written.
    """
    if not is_run(classifier.path):
        what = f'{classifier.path} is a folder of transformers already'
        raise ValueError(f'{what}; copy it, or name a run of train.py')
    if classifier.dtype != torch.float32 or classifier.windows:
        what = 'a run is exported in float32, and reads no windows then'
        raise ValueError(f"{what}; open it with Classifier({classifier.path!r}, dtype='float32')")
    config = classifier.model.config
    family_name = find_family(config)
    keep = classifier.checkpoint['settings']['keep']
    if keep == 'both':
        what = 'keep=both keeps both ends of a long text, and transformers can keep only one'
        raise ValueError(f'{what}; train with --keep=first or last, or {ONNX_REMEDY}')

    coder = make_coder(classifier)
    pad_token = find_pad_token(coder, config, family_name)
    pad_id = coder.token_to_id(pad_token)
    vocab_size = max(config.vocab_size, pad_id + 1)
    tensors = make_tensors(classifier.model, family_name, vocab_size)
    n_params = sum(tensor.numel() for tensor in tensors.values())
    hf_config = make_config(classifier, family_name, vocab_size, pad_id)
    tokenizer_config = make_tokenizer_config(classifier, pad_token)
    card = hf_card(classifier, hf_config, n_params, can_tidy_white_space(coder))

    with whole_folder(folder) as temporary:
        write_safetensors(os.path.join(temporary, 'model.safetensors'), tensors)
        write_text(os.path.join(temporary, 'tokenizer.json'), coder.to_str(pretty=True))
        write_json(os.path.join(temporary, 'tokenizer_config.json'), tokenizer_config)
        hf_config['nanosentiment']['checksums'] = folder_checksums(temporary, hf_config)
        write_json(os.path.join(temporary, 'config.json'), hf_config)
        write_text(os.path.join(temporary, 'README.md'), card)
        n_checked, difference = check(classifier, temporary)
    return {
        'files': list(FILES),
        'n_params': n_params,
        'checked': n_checked,
        'max_logit_difference': difference,
    }


# -----------------------------------------------------------------------------
# which of their classes

CLASS_NAMES = {
    'gpt2': 'GPT2ForSequenceClassification',
    'bert': 'BertForSequenceClassification',
    'distilbert': 'DistilBertForSequenceClassification',
    'roberta': 'RobertaForSequenceClassification',
    'electra': 'ElectraForSequenceClassification',
    'mpnet': 'MPNetForSequenceClassification',
}


def find_family(config):
    """
    The name in FAMILIES of the class that computes a model of this Config.

    XLM-RoBERTa and CamemBERT are RoBERTas. ValueError if no class computes it; it names what the
    nearest one lacks.
    """
    if config.n_class == 0:
        what = 'a language model has no labels, so there is no classifier to export'
        raise ValueError(f'{what}; fine-tune it first, with --init_from=<its out_dir>')
    obstacles = {name: find_obstacles(config, FAMILIES[name]) for name in CLASS_NAMES}
    nearest = min(obstacles, key=lambda name: len(obstacles[name]))
    if obstacles[nearest]:
        what = f'no classifier of transformers computes {" and ".join(obstacles[nearest])}'
        raise ValueError(f'{what} (the nearest is {CLASS_NAMES[nearest]}); {ONNX_REMEDY}')
    return nearest


def find_obstacles(config, family):
    """The fields of a Config that a family's class cannot have so: ["pool='mean'"], or []."""
    wanted = {}
    for field in ('causal', 'pre_norm', 'pool', 'head'):
        wanted[field] = family.defaults[field]
    wanted['n_bucket'] = family.defaults.get('n_bucket', 0)
    if 'eps' not in family.fields:
        wanted['eps'] = family.defaults['eps']
    if 'embedding_size' not in family.fields:
        wanted['embedding_size'] = config.n_embd

    # these two are there or not; how many is up to the checkpoint
    if family.defaults['n_type'] == 0:
        wanted['n_type'] = 0
    elif config.n_type == 0:
        wanted['n_type'] = family.defaults['n_type']
    if not family.counts_from_pad:
        wanted['pos_offset'] = 0
    elif config.pos_offset == 0:
        wanted['pos_offset'] = 2

    differing = [field for field, value in wanted.items() if getattr(config, field) != value]
    return [f'{field}={getattr(config, field)!r}' for field in differing]


# -----------------------------------------------------------------------------
# weights

# modules of theirs that stand beside the body, so that its prefix is not in front of their names
HEAD_MODULES = ('classifier', 'pre_classifier', 'score')


def make_tensors(model, family_name, vocab_size):
    """All weights of a model, {their name: tensor}, with vocab_size rows in the embedding."""
    family = FAMILIES[family_name]
    state = {name: p.detach().float().cpu() for name, p in model.named_parameters()}
    if not family.head_has_bias:
        state['ln.bias'] = take_in_head_bias(state)
        del state['head.bias']
    n_new_rows = vocab_size - len(state['wte.weight'])
    state['wte.weight'] = F.pad(state['wte.weight'], (0, 0, 0, n_new_rows))  # rows of zeros

    tensors = {}
    for name, tensor in state.items():
        names = hf_names(name, family.weights)
        is_transposed = without_layer(module_of(name)) in family.transposed
        # query, key and value are one tensor of ours and three of most of theirs
        for hf_name, part in zip(names, tensor.chunk(len(names)), strict=True):
            if is_transposed and part.dim() == 2:
                part = part.T
            if hf_name.partition('.')[0] not in HEAD_MODULES:
                hf_name = family.prefix + hf_name
            tensors[hf_name] = part
    return tensors


def take_in_head_bias(state):
    """
    The bias of the last LayerNorm, changed so that the head gives the same logits without a bias.

    GPT-2's head reads x = norm + ln.bias and has no bias b. W (x + d) = W x + b needs W d = b, and
    there is such a d unless the rows of W (n_class, C) depend on each other. ValueError then.
    """
    weight = state['head.weight'].double()
    bias = state['head.bias'].double()
    # by singular values, because the rows may be nearly dependent
    shift = torch.linalg.lstsq(weight, bias[:, None], driver='gelsd').solution[:, 0]  # (C,)
    ln_bias = (state['ln.bias'].double() + shift).float()
    # with what rounding to float32 costs
    error = weight @ (ln_bias.double() - state['ln.bias'].double()) - bias
    if error.abs().max() > MAX_DIFFERENCE:
        what = 'GPT2ForSequenceClassification has no bias in its head, and that of this run cannot'
        reason = f'be moved into the last LayerNorm (logits off by {error.abs().max():.1e})'
        raise ValueError(f'{what} {reason}; {ONNX_REMEDY}')
    return ln_bias


def write_safetensors(path, tensors):
    """
    {name: tensor} -> a .safetensors file, in float32.

    The format is 8 bytes with the length of the header, the header in JSON, and raw numbers:
    https://huggingface.co/docs/safetensors
    """
    header = {'__metadata__': {'format': 'pt'}}  # PyTorch, which old versions of transformers want
    end = 0
    for name, tensor in tensors.items():
        begin = end
        end = begin + 4 * tensor.numel()
        header[name] = {
            'dtype': 'F32',
            'shape': list(tensor.shape),
            'data_offsets': [begin, end],
        }
    header_bytes = json.dumps(header).encode()
    header_bytes += b' ' * (-len(header_bytes) % 8)  # the numbers begin at a multiple of 8
    with open(path, 'wb') as f:
        f.write(len(header_bytes).to_bytes(8, 'little'))
        f.write(header_bytes)
        for tensor in tensors.values():
            f.write(tensor.numpy().astype('<f4', copy=False).tobytes())


# -----------------------------------------------------------------------------
# config.json

ACTIVATION_OF_GELU = {'exact': 'gelu', 'tanh': 'gelu_new'}
# Dropout is one number with us. These are the names that it has besides the one in the family's
# fields.
OTHER_DROPOUTS = {
    'gpt2': ('embd_pdrop', 'attn_pdrop'),
    'distilbert': ('attention_dropout',),
    'bert': ('attention_probs_dropout_prob',),
    'roberta': ('attention_probs_dropout_prob',),
    'electra': ('attention_probs_dropout_prob',),
    'mpnet': ('attention_probs_dropout_prob',),
}


def make_config(classifier, family_name, vocab_size, pad_id):
    """The content of config.json."""
    config = classifier.model.config
    family = FAMILIES[family_name]
    hf_config = {'architectures': [CLASS_NAMES[family_name]], 'model_type': family_name}
    for field, hf_name in family.fields.items():
        # one name may stand for two fields, dropout and head_dropout; then the first one counts
        hf_config.setdefault(hf_name, getattr(config, field))
    for hf_name in OTHER_DROPOUTS[family_name]:
        hf_config[hf_name] = config.dropout
    hf_config[family.fields['gelu']] = ACTIVATION_OF_GELU[config.gelu]
    hf_config[family.fields['block_size']] = config.block_size + config.pos_offset
    hf_config['vocab_size'] = vocab_size
    hf_config['pad_token_id'] = pad_id
    if family_name == 'gpt2':
        # else transformers supposes 50256, which a small vocabulary does not have
        hf_config['bos_token_id'] = None
        hf_config['eos_token_id'] = None
    if config.n_bucket > 0:
        hf_config['relative_attention_num_buckets'] = config.n_bucket

    labels = classifier.labels
    hf_config['id2label'] = {str(i): label for i, label in enumerate(labels)}
    hf_config['label2id'] = {label: i for i, label in enumerate(labels)}
    hf_config['problem_type'] = 'single_label_classification'
    # what their classes do not do, so that our Classifier opens the folder as it opens the run
    recipe = classifier.checkpoint['recipe']
    hf_config['nanosentiment'] = {
        'temperature': classifier.temperature,
        'keep': classifier.checkpoint['settings']['keep'],
        'block_size': config.block_size,
        'cleaning': {step: recipe[step] for step in STEPS},
    }
    return hf_config


# -----------------------------------------------------------------------------
# the tokenizer


def tokenizer_json(classifier):
    """A Classifier -> the text of a tokenizer.json that gives its ids, special tokens included."""
    return make_coder(classifier).to_str()


def make_coder(classifier):
    """
    The tokenizer of a Classifier -> a tokenizers.Tokenizer that gives the same ids, and tidies
    white space as cleaning does.

    A special token that a user types is plain text to it. A tokenizer.json cannot say that, so it
    stands in tokenizer_config.json.
    """
    tokenizers = import_tokenizers()
    tokenizer = classifier.tokenizer
    if tokenizer.kind == 'json':
        coder = tokenizers.Tokenizer.from_str(tokenizer.coder.to_str())  # a copy, to be changed
        if tokenizer.appended_ids:
            append_end(tokenizers, coder)
    else:
        coder = make_byte_level_coder(tokenizers, tokenizer)
        append_end(tokenizers, coder)
    is_uncleaned = classifier.checkpoint['recipe'].get('uncleaned', False)
    if not is_uncleaned and can_tidy_white_space(coder):
        tidy_white_space(tokenizers, coder)
    coder.encode_special_tokens = True
    return coder


def import_tokenizers():
    """The optional package. ValueError that tells how to install it."""
    try:
        import tokenizers
    except ImportError as error:
        what = f'a tokenizer.json is written by the package tokenizers ({error})'
        raise ValueError(f'{what}; pip install tokenizers') from None
    return tokenizers


def make_byte_level_coder(tokenizers, tokenizer):
    """A Tokenizer, whose vocabulary is ranks of bytes -> a tokenizers.Tokenizer without its end."""
    ranks = parse_ranks(tokenizer.vocab_file)
    characters = byte_characters()
    vocab = {spell(token, characters): rank for token, rank in ranks.items()}
    merges = []
    for left, right in find_merges(ranks):
        merges.append((spell(left, characters), spell(right, characters)))
    # ignore_merges: a word that is a token is that token, whatever its merges are
    coder = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges, ignore_merges=True))
    if tokenizer.text_prefix:
        # not ByteLevel's add_prefix_space, which adds none where there is one already
        coder.normalizer = tokenizers.normalizers.Prepend(tokenizer.text_prefix)
    # Its regular expression is GPT-2's, which finds the words that PATTERN finds. It does not split
    # runs of more than 4,096 characters as we do, which changes a token or two of them.
    coder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = tokenizers.decoders.ByteLevel()
    coder.add_special_tokens([END_OF_TEXT])
    assert coder.token_to_id(END_OF_TEXT) == tokenizer.end_id, tokenizer.name
    return coder


def byte_characters():
    """
    The characters that stand for the 256 bytes in a tokenizer.json, in a list.

    Bytes that are visible in Latin-1 stand for themselves; the others are the characters from
    U+0100 on. A space is 'Ġ'. From encoder.py in github.com/openai/gpt-2.
    """
    characters = []
    n_invisible = 0
    for byte in range(256):
        is_visible = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
        if is_visible:
            characters.append(chr(byte))
        else:
            characters.append(chr(256 + n_invisible))
            n_invisible += 1
    return characters


def spell(token, characters):
    """b' the' -> 'Ġthe'"""
    return ''.join(characters[byte] for byte in token)


def find_merges(ranks):
    """
    The pairs of tokens that an encoder joins, [(left, right), ...], in the order of the ranks.

    tiktoken goes by ranks of tokens: it joins the pair of neighbours whose joined bytes have the
    lowest rank, the leftmost of several. tokenizers goes by a list of pairs. One pair for each
    token is enough: until it is whole, what becomes a token is joined as if it stood alone, since
    a join across its ends would have prevented it. So its last pair is always the same.

    Example: ranks of a, b, c, bc and abc -> [(b, c), (a, bc)]; and not (ab, c), as there is no ab.
    """
    merges = []
    for token in sorted(ranks, key=ranks.get):
        if len(token) > 1:
            parts = join_to_two(token, ranks)
            if parts:
                merges.append(parts)
    return merges


def join_to_two(token, ranks):
    """
    The last two parts that become the token as tiktoken encodes its bytes.

    None if they do not become one: such a token is only found as a whole word.
    """
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [left + right for left, right in zip(parts, parts[1:])]
        pair_ranks = [ranks.get(pair, len(ranks)) for pair in pairs]
        lowest = min(pair_ranks)
        if lowest == len(ranks):
            return None
        i = pair_ranks.index(lowest)
        parts[i : i + 2] = [pairs[i]]
    return tuple(parts)


def append_end(tokenizers, coder):
    """Lets a tokenizers.Tokenizer put <|endoftext|> behind each text, the token that we read."""
    end_id = coder.token_to_id(END_OF_TEXT)
    # it takes the place of a post-processor that puts nothing around a text
    coder.post_processor = tokenizers.processors.TemplateProcessing(
        single=['$A', END_OF_TEXT], special_tokens=[(END_OF_TEXT, end_id)]
    )


# white space within a line and line ends, as str.split and str.splitlines know them
BLANKS = '[\t\x1f \xa0\u1680\u2000-\u200a\u202f\u205f\u3000]'
LINE_ENDS = '[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]'


def can_tidy_white_space(coder):
    """
    Whether white space can be tidied by the normalizer of a tokenizers.Tokenizer.

    Not where the vocabulary has added tokens such as <ORG>: what stands between two of them is
    normalized by itself, so that the blanks beside them would be lost.
    """
    return all(token.special for token in coder.get_added_tokens_decoder().values())


def tidy_white_space(tokenizers, coder):
    """Lets a tokenizers.Tokenizer do what cleaning.tidy_whitespace does, before all else."""
    Replace = tokenizers.normalizers.Replace
    steps = [
        Replace(tokenizers.Regex(f'{BLANKS}+'), ' '),
        Replace(tokenizers.Regex(f' ?{LINE_ENDS}(?: ?{LINE_ENDS})* ?'), '\n'),
        tokenizers.normalizers.Strip(),
    ]
    if coder.normalizer is not None:
        steps.append(coder.normalizer)
    coder.normalizer = tokenizers.normalizers.Sequence(steps)


def find_pad_token(coder, config, family_name):
    """
    The token that fills up a batch, which is added to the vocabulary if it has none.

    RoBERTa and MPNet count positions from it. GPT-2's class takes the last token before it for the
    end of a text, so there it is a new one that no text has: <|endoftext|>, which others take,
    would be taken for padding where we read it.
    """
    if FAMILIES[family_name].counts_from_pad:
        pad_token = coder.id_to_token(config.pos_offset - 1)
        if pad_token is None:
            what = f'the vocabulary has no token {config.pos_offset - 1} for padding'
            raise ValueError(f'{what}, from which {family_name} counts positions; {ONNX_REMEDY}')
        return pad_token
    if family_name != 'gpt2':
        for token in ('[PAD]', '<pad>'):
            if coder.token_to_id(token) is not None:
                return token
    coder.add_special_tokens([PAD_TOKEN])  # no change if an earlier export has added it
    return PAD_TOKEN


def make_tokenizer_config(classifier, pad_token):
    """The content of tokenizer_config.json."""
    config = classifier.model.config
    model_input_names = ['input_ids', 'attention_mask']
    if config.pair_sep >= 0 and config.n_type > 1:
        model_input_names.append('token_type_ids')
    truncation_side = 'right'
    if classifier.checkpoint['settings']['keep'] == 'last':
        truncation_side = 'left'
    return {
        # not GPT2Tokenizer and so on, which would build another tokenizer of the vocabulary
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_max_length': config.block_size,
        'truncation_side': truncation_side,
        'pad_token': pad_token,
        'model_input_names': model_input_names,
        'split_special_tokens': True,  # [SEP] typed by a user is plain text
        'clean_up_tokenization_spaces': False,
        EXPORTED: True,  # a second sign, should that in config.json be damaged
    }


# -----------------------------------------------------------------------------
# the folder


@contextlib.contextmanager
def whole_folder(folder):
    """
    A temporary folder that takes the place of `folder` when the `with` block is done, and that is
    removed if the block raises. ValueError if there is a folder that is not an earlier export.
    """
    check_is_free(folder)
    target = os.path.realpath(folder)
    temporary = f'{target}.{os.getpid()}'
    try:
        os.makedirs(temporary)
        yield temporary
        replace_folder(temporary, target)
    except OSError as error:
        what = f'{folder} cannot be written ({error.strerror})'
        raise ValueError(f'{what}; make room, or name another --output') from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path, text):
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)


def check_is_free(folder):
    """ValueError unless a folder is missing, empty, or an earlier export and nothing else."""
    if not os.path.lexists(folder):
        return
    remedy = 'name another --output'
    if not os.path.isdir(folder):
        raise ValueError(f'{folder} is there already, and no folder; {remedy}')
    names = os.listdir(folder)
    foreign = sorted(set(names) - set(FILES))
    if foreign:
        raise ValueError(f'{folder} holds {foreign[0]}, which is not of an export; {remedy}')
    if not names:
        return
    path = os.path.join(folder, 'config.json')
    if 'nanosentiment' not in read_json(path, remedy):
        raise ValueError(f'{path} is not of an export, and would be lost; {remedy}')


def replace_folder(new, old):
    """Gives a folder the place of another one, which is removed then."""
    if not os.path.isdir(old):
        os.rename(new, old)
        return
    aside = f'{new}.old'
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except OSError:
        os.rename(aside, old)
        raise
    shutil.rmtree(aside)


# -----------------------------------------------------------------------------
# the check


def check(classifier, folder):
    """
    Compares the logits of an exported folder, opened again, with those of its classifier.

    Returns the number of texts and the largest difference. ValueError if they are not the same.
    """
    texts = list(CHECK_TEXTS)
    if classifier.has_pairs:
        texts = list(zip(texts, reversed(texts)))
    expected = classifier.logits(texts)
    again = Classifier(folder, device=classifier.device, dtype='float32')
    difference = float(np.abs(again.logits(texts) - expected).max())
    largest = max(1.0, float(np.abs(expected).max()))
    # not difference > ..., which is False for nan
    is_same = difference <= MAX_DIFFERENCE * largest
    if not is_same:
        what = f'{classifier.path} is not exported, because its logits differ by {difference:.1e}'
        raise ValueError(f'{what} when they are loaded again; {ONNX_REMEDY}, and report this')
    return len(texts), difference
