# python -m pytest tests/test_pretrained_classifier.py
"""
A classifier that was trained with transformers is used and judged as it is: --out_dir=<its folder>.

The answers must be those that transformers gives, from the text on: the tokenizer, what stands
around a text, how it is cut, and the position that the head reads are all part of it.
"""

import csv
import json

import pytest
import torch
from conftest import run

from nanosentiment import Classifier
from nanosentiment.pretrained import other_label_names

transformers = pytest.importorskip('transformers')
tokenizers = pytest.importorskip('tokenizers')
safetensors = pytest.importorskip('safetensors.torch')
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

TEXTS = [
    'I love it, thank you so much!',
    'It broke after two days.   Nobody answers my calls!!',
    'ok',
    'The parcel arrived on Tuesday, and the box was fine.',
    '  A leading space, and a tab\tinside ',
    'CAPITALS and <b>markup</b> &amp; [brackets] stay as they are',
    'naïve café 映画 😀',
    'line one\nline two',
    'Not worth the money, very disappointed.',
    'lovely ' * 50,
    'a b c d e f g h i j k l m n o p',
    'It is not that I disliked it, it is that nothing in it stayed with me.',
    '12,345.67 $ and 100 %',
    "don't, won't, can't",
    '?',
    'the the the the',
    'good', 'bad', 'Good', 'BAD',
]  # fmt: skip
LABELS = ['NEGATIVE', 'NEUTRAL', 'POSITIVE']
T = 40  # the longest text that the models read, so that one is cut


def train_word_piece(around):
    """BERT's kind of tokenizer, and MPNet's: words in lower case, split into pieces."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ['[PAD]', *around, '[UNK]', '[MASK]']
    if around[0] == '<s>':
        special = ['<s>', '<pad>', '</s>', '[UNK]', '[MASK]']
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def train_byte_bpe():
    """GPT-2's kind, and RoBERTa's: bytes, a space belongs to the word after it."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ['<s>', '<pad>', '</s>', '<unk>', '<|endoftext|>', '<|pad|>']
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def train_unigram():
    """XLM-RoBERTa's kind, and CamemBERT's: pieces of a sentence with their probabilities."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=['<s>', '<pad>', '</s>', '<unk>'], unk_token='<unk>'
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def put_around(tokenizer, first, last, between, type_of_second):
    """What stands around a text, and between the texts of a pair."""
    kind = type_of_second
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f'{first} $A {last}',
        pair=f'{first} $A {between} $B:{kind} {last}:{kind}',
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )


def make_tokenizer(family):
    """A tokenizer as the family has one, and the names of its special tokens."""
    if family == 'gpt2':
        return train_byte_bpe(), {'eos_token': '<|endoftext|>', 'pad_token': '<|pad|>'}
    if family in ('bert', 'distilbert', 'electra'):
        tokenizer = train_word_piece(['[CLS]', '[SEP]'])
        put_around(tokenizer, '[CLS]', '[SEP]', '[SEP]', 1)
        return tokenizer, {'cls_token': '[CLS]', 'sep_token': '[SEP]', 'pad_token': '[PAD]'}
    if family == 'roberta':
        tokenizer = train_byte_bpe()
    elif family == 'mpnet':
        tokenizer = train_word_piece(['<s>', '</s>'])
    else:
        tokenizer = train_unigram()
    put_around(tokenizer, '<s>', '</s>', '</s> </s>', 0)
    return tokenizer, {'cls_token': '<s>', 'sep_token': '</s>', 'pad_token': '<pad>'}


def make_classifier(folder, family, **changes):
    """Saves a tiny classifier of transformers with its tokenizer; returns both."""
    coder, special = make_tokenizer(family)
    takes_types = family in ('bert', 'electra')
    names = ['input_ids', 'token_type_ids', 'attention_mask']
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=coder,
        model_max_length=T,
        model_input_names=names if takes_types else [names[0], names[2]],
        **special,
    )
    counts_from_pad = family in ('roberta', 'xlm-roberta', 'camembert', 'mpnet')
    sizes = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=T + 2 * counts_from_pad,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    if family == 'gpt2':
        sizes['n_inner'] = sizes.pop('intermediate_size')
    if family == 'distilbert':
        sizes['hidden_dim'] = sizes.pop('intermediate_size')
    config = transformers.AutoConfig.for_model(family, **sizes | changes)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.15)  # biases and norms too, so that each of them counts
    if family != 'gpt2':  # whose head has no bias
        # random weights give most texts the same label, and this evens them out
        layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        (head,) = [m for m in layers if m.out_features == config.num_labels]
        head.bias.data -= torch.from_numpy(their_logits(model, tokenizer, TEXTS)).mean(0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@torch.no_grad()
def their_logits(model, tokenizer, texts, pairs=None):
    inputs = tokenizer(
        texts, pairs, padding=True, truncation=True, max_length=T, return_tensors='pt'
    )
    return model(**inputs).logits.numpy()


FAMILIES = (
    'gpt2', 'bert', 'distilbert', 'electra', 'roberta', 'xlm-roberta', 'camembert', 'mpnet',
)  # fmt: skip


@pytest.mark.parametrize('family', FAMILIES)
def test_the_answers_are_those_of_transformers(family, tmp_path):
    """20 of 20 labels, and the logits; one text is longer than the model reads."""
    model, tokenizer = make_classifier(tmp_path, family)
    expected = their_logits(model, tokenizer, TEXTS)

    classifier = Classifier(tmp_path, device='cpu')
    logits = classifier.logits(TEXTS)
    assert abs(logits - expected).max() < 1e-5
    answers = classifier(TEXTS)
    assert [answer['label'] for answer in answers] == [LABELS[i] for i in expected.argmax(1)]
    assert len({answer['label'] for answer in answers}) > 1, 'else the labels tell nothing'
    assert [answer['truncated'] for answer in answers].count(True) >= 1


@pytest.mark.parametrize('family', ['bert', 'electra', 'roberta', 'mpnet'])
def test_pairs_are_read_as_transformers_reads_them(family, tmp_path):
    model, tokenizer = make_classifier(tmp_path, family)
    seconds = TEXTS[1:] + TEXTS[:1]
    expected = their_logits(model, tokenizer, TEXTS[:9], seconds[:9])
    logits = Classifier(tmp_path, device='cpu').logits(list(zip(TEXTS[:9], seconds[:9])))
    assert abs(logits - expected).max() < 1e-5


@pytest.mark.parametrize('pad', ['own', 'eos'])
def test_gpt2s_head_reads_the_last_token_of_the_text(pad, tmp_path):
    """
    We append <|endoftext|> for our own runs and read it; this head was never trained on that. With
    the end token as padding, as many tutorials have it, transformers reads the same position.
    """
    model, tokenizer = make_classifier(tmp_path, 'gpt2')
    if pad == 'eos':
        tokenizer.pad_token = '<|endoftext|>'
        tokenizer.save_pretrained(tmp_path)
        model.config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(tmp_path)
    expected = their_logits(model, tokenizer, TEXTS)
    classifier = Classifier(tmp_path, device='cpu')
    assert abs(classifier.logits(TEXTS) - expected).max() < 1e-5
    (ids,) = classifier.encode(['good'])
    assert ids == tokenizer('good')['input_ids']
    (answer,) = classifier([''])  # has no token to read, and still gets an answer
    assert answer['label'] in LABELS


def test_two_labels_without_names_are_found_in_the_weights(tmp_path):
    """transformers writes no id2label where the names are its own LABEL_0 and LABEL_1."""
    make_classifier(tmp_path, 'bert', id2label={0: 'LABEL_0', 1: 'LABEL_1'}, label2id=None)
    assert Classifier(tmp_path, device='cpu').labels == ['LABEL_0', 'LABEL_1']


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'problem_type': 'multi_label_classification'}, 'problem_type=multi_label'),
        ({'num_labels': 1, 'id2label': {0: 'x'}, 'label2id': {'x': 0}}, 'one number'),
    ],
)
def test_a_head_that_gives_no_single_label_is_refused(changes, words, tmp_path):
    make_classifier(tmp_path, 'bert', **changes)
    with pytest.raises(ValueError, match=f'does not classify texts .*{words}.*train it first'):
        Classifier(tmp_path, device='cpu')


def test_a_model_without_a_trained_head_is_refused(tmp_path):
    """A fresh head would give random labels."""
    model, _ = make_classifier(tmp_path, 'bert')
    model.bert.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='no trained head.*train it first: python train.py'):
        Classifier(tmp_path, device='cpu')


@pytest.mark.parametrize(
    'family, hidden_layer, missing',
    [('bert', 'bert.pooler', 'pooler.dense'), ('roberta', 'classifier.dense', 'classifier.dense')],
)
def test_a_head_without_its_hidden_layer_is_refused(family, hidden_layer, missing, tmp_path):
    """It would start fresh, so that the labels would be others each time."""
    make_classifier(tmp_path, family)
    path = tmp_path / 'model.safetensors'
    tensors = safetensors.load_file(path)
    path.unlink()
    kept = {name: t for name, t in tensors.items() if not name.startswith(hidden_layer)}
    assert len(kept) == len(tensors) - 2
    safetensors.save_file(kept, path, {'format': 'pt'})
    with pytest.raises(ValueError, match=f'does not classify texts .*{missing}, is missing'):
        Classifier(tmp_path, device='cpu')


def test_a_folder_may_be_called_like_a_tokenizer(tmp_path, monkeypatch):
    """The folder gpt2 has a tokenizer of its own, and not that of the name gpt2."""
    model, tokenizer = make_classifier(tmp_path / 'gpt2', 'gpt2')
    expected = their_logits(model, tokenizer, TEXTS)
    monkeypatch.chdir(tmp_path)
    assert abs(Classifier('gpt2', device='cpu').logits(TEXTS) - expected).max() < 1e-5


@pytest.mark.parametrize('changes', [{'truncation_side': 'left'}, {'model_max_length': 12}])
def test_a_text_is_cut_as_its_tokenizer_says(changes, tmp_path):
    """The end may be kept, and fewer tokens than the model has positions for."""
    model, tokenizer = make_classifier(tmp_path, 'roberta')
    path = tmp_path / 'tokenizer_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ['lovely ' * 30 + 'bad ' * 30, *TEXTS]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors='pt')
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    assert abs(Classifier(tmp_path, device='cpu').logits(texts) - expected).max() < 1e-5


def test_two_labels_of_one_name_are_refused(tmp_path):
    """Their probabilities would be one, and that of the first would be lost."""
    make_classifier(tmp_path, 'bert')
    path = tmp_path / 'config.json'
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {'id2label': dict.fromkeys('012', 'a')})
    )
    with pytest.raises(ValueError, match="several labels 'a'; give each a name"):
        Classifier(tmp_path, device='cpu')


def test_a_long_text_can_be_read_in_windows(tmp_path):
    """Its tokenizer knows pairs, of which no windows are made; single texts have them even so."""
    make_classifier(tmp_path, 'bert')
    whole = Classifier(tmp_path, device='cpu', windows=True)
    (answer,) = whole(['lovely ' * 50 + 'bad ' * 50])
    assert answer['truncated'] is False
    short = TEXTS[:3]
    assert whole(short) == Classifier(tmp_path, device='cpu')(short)
    with pytest.raises(ValueError, match='single texts, not pairs'):
        whole([('good', 'bad')])


# -----------------------------------------------------------------------------
# the commands


def test_sample_classify_takes_the_folder(tmp_path):
    model, tokenizer = make_classifier(tmp_path / 'model', 'distilbert')
    expected = their_logits(model, tokenizer, TEXTS[:4]).argmax(1)
    path = tmp_path / 'rows.csv'
    with open(path, 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([['id', 'body'], *enumerate(TEXTS[:4])])

    flags = [f'--out_dir={tmp_path}/model', f'--input={path}', '--device=cpu']
    result = run('sample_classify.py', *flags, '--text_column=body')
    rows = list(csv.DictReader(result.out.splitlines()))
    assert [row['label'] for row in rows] == [LABELS[i] for i in expected]

    refused = run('sample_classify.py', *flags, status=2)
    assert 'set --text_column to one of id, body' in refused.err
    assert 'Traceback' not in refused.err


def test_evaluate_takes_the_folder(tmp_path):
    """The file's labels may be numbers of the logits, or in lower case, as data sets have them."""
    model, tokenizer = make_classifier(tmp_path / 'model', 'roberta')
    texts = [text.strip() for text in TEXTS]  # as cells of a table are
    answers = their_logits(model, tokenizer, texts).argmax(1)
    path = tmp_path / 'rows.csv'
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['body', 'mood'])
        for i, text in enumerate(texts):
            label = str(answers[i]) if i % 2 else LABELS[answers[i]].lower()
            writer.writerow([text, label])
    flags = [f'--out_dir={tmp_path}/model', '--device=cpu']
    columns = ['--text_column=body', '--label_column=mood']
    result = run('evaluate.py', *flags, f'--input={path}', *columns)
    assert (result.last['n'], result.last['accuracy']) == (20, 1.0)
    assert json.loads((tmp_path / 'model' / 'evaluation-input.json').read_text())['n'] == 20

    refused = run('evaluate.py', *flags, status=2)
    assert 'no run of this project' in refused.err and '--input=' in refused.err


def test_labels_of_a_file_can_be_renamed(tmp_path):
    make_classifier(tmp_path / 'model', 'bert')
    path = tmp_path / 'rows.csv'
    path.write_text('body,mood\ngood,pos\nbad,neg\n')
    result = run(
        'evaluate.py',
        f'--out_dir={tmp_path}/model',
        f'--input={path}',
        '--text_column=body',
        '--label_column=mood',
        '--label_names=pos=POSITIVE,neg=NEGATIVE',
        '--device=cpu',
    )
    assert result.last['n'] == 2
    assert result.last['per_class']['POSITIVE']['support'] == 1


def test_stars_are_not_counted_from_zero():
    """Where labels are numbers themselves, 1 means the label 1 and not the second one."""
    assert other_label_names(['1', '2', '3']) == {}
    names = other_label_names(['NEGATIVE', 'POSITIVE'])
    assert (names['1'], names['positive']) == ('POSITIVE', 'POSITIVE')
    assert 'POSITIVE' not in names


@pytest.mark.parametrize('script', ['sample_classify.py', 'evaluate.py'])
def test_a_lora_adapter_in_place_of_a_model_is_named(script, tmp_path):
    """'Train a model first' would send its owner the wrong way."""
    (tmp_path / 'adapter_model.safetensors').write_bytes(b'1')
    result = run(script, f'--out_dir={tmp_path}', status=2)
    assert 'a LoRA adapter without its model' in result.err
    assert 'merge_and_unload' in result.err
