# python -m pytest tests/test_export_onnx.py
"""
An ONNX graph answers as the run that it was made of, whatever the model and the sizes of a batch.

A wrong graph still answers, with other probabilities. The weights here are drawn from N(0, 0.3), or
N(1, 0.3) in the norms, because with freshly initialised ones most mistakes would not show.
"""

import json
import os
import sys

import numpy as np
import pytest
import torch
from conftest import redraw_weights

from model import Config, Transformer
from nanosentiment import fast, to_onnx
from nanosentiment.checkpoint import Classifier, save_checkpoint
from nanosentiment.cleaning import STEPS
from nanosentiment.tokenizer import get_tokenizer

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

BLOCK_SIZE = 24
VOCAB_SIZE = 60
TEMPERATURE = 1.7
NOISE = 1e-5  # of float32, in a probability
SEPARATOR = 7
SIZES = dict(block_size=BLOCK_SIZE, vocab_size=VOCAB_SIZE, n_layer=2, n_head=2, n_embd=16)
ENCODER = dict(causal=False, pre_norm=False, pool='first', gelu='exact')
FAMILIES = {
    'gpt': {},
    'bert': ENCODER | dict(eps=1e-12, n_type=2, head='tanh'),
    'bert with pairs': ENCODER | dict(n_type=2, head='tanh', pair_sep=SEPARATOR),
    'distilbert': ENCODER | dict(eps=1e-12, head='relu'),
    'roberta': ENCODER | dict(n_type=1, pos_offset=2, head='tanh'),
    'electra': ENCODER | dict(n_type=2, head='gelu', embedding_size=8),
    'mpnet': ENCODER | dict(pos_offset=2, head='tanh', n_bucket=32),
    'one layer': dict(n_layer=1),
}
HEADS = ('linear', 'tanh', 'relu', 'gelu')
# no causal model reads the first token
POOLS = [('last', True), ('mean', True), ('last', False), ('mean', False), ('first', False)]


# -----------------------------------------------------------------------------
# what the tests share


def make_classifier(folder, recipe=None, keep='last', **fields):
    """A run with random weights, without training, opened as export wants it."""
    tokenizer = get_tokenizer('bpe257', ['never learned'])
    config = SIZES | {'vocab_size': tokenizer.n_vocab} | fields
    model = Transformer(Config(**config))
    redraw_weights(model)
    with torch.no_grad():
        # so that each label is the answer to some texts
        logits = fast.predict(model, make_texts([1, 2, 5, 10, 20] * 10))
        model.head.bias -= torch.from_numpy(logits).mean(dim=0)
    no_steps = {name: False for name in STEPS} | {'speakers': 'all'}
    recipe = {'columns': ['', '']} | no_steps | (recipe or {})
    checkpoint = {
        'model': model.state_dict(),
        'config': vars(model.config),
        'settings': {'dtype': 'float32', 'keep': keep},
        'labels': ['negative', 'naïve', 'positive'],
        'dataset': 'none',
        'tokenizer': tokenizer.state(),
        'recipe': recipe,
        'temperature': TEMPERATURE,
    }
    path = os.path.join(folder, 'best.pt')
    save_checkpoint(path, checkpoint)
    return Classifier(path, device='cpu', dtype='float32')


def make_session(classifier, folder):
    """The classifier's graph in onnxruntime."""
    path = os.path.join(folder, 'graph.onnx')
    to_onnx.write_graph(classifier, path)
    return to_onnx.open_session(path, n_threads=1)


def make_texts(lengths, seed=0):
    """Random ids of these lengths, in which the separator of pairs is frequent."""
    rng = np.random.default_rng(seed)
    texts = []
    for length in lengths:
        ids = rng.integers(VOCAB_SIZE, size=length)
        ids[rng.random(length) < 0.1] = SEPARATOR
        texts.append(ids)
    return texts


def our_probabilities(classifier, texts):
    return classifier.probabilities(fast.predict(classifier.model, texts))


def largest_difference(classifier, session, texts, batch_size):
    theirs = to_onnx.run_graph(session, texts, batch_size)
    return np.abs(theirs - our_probabilities(classifier, texts)).max()


# -----------------------------------------------------------------------------
# the same answers


def assert_same_answers(classifier, session):
    """
    In batches of other sizes than those that the graph was traced with: a single text and many,
    of one token and of block_size, and of lengths that do not fill the batch.
    """
    assert largest_difference(classifier, session, make_texts([1]), 1) < NOISE
    assert largest_difference(classifier, session, make_texts([BLOCK_SIZE]), 1) < NOISE
    assert largest_difference(classifier, session, make_texts([1] * 5), 5) < NOISE
    lengths = np.random.default_rng(1).integers(1, BLOCK_SIZE + 1, size=200)
    texts = make_texts(lengths)
    assert largest_difference(classifier, session, texts, 64) < NOISE
    theirs = to_onnx.run_graph(session, texts, batch_size=7)
    labels = our_probabilities(classifier, texts).argmax(1)
    assert theirs.argmax(1).tolist() == labels.tolist()
    assert len(set(labels)) > 1  # a graph that ignores its input would not pass


@pytest.mark.parametrize('family', FAMILIES)
def test_each_family_gives_its_answers(family, tmp_path):
    classifier = make_classifier(tmp_path, **FAMILIES[family])
    assert_same_answers(classifier, make_session(classifier, tmp_path))


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('pool, causal', POOLS)
def test_each_pooling_and_head_gives_its_answers(pool, causal, head, tmp_path):
    classifier = make_classifier(tmp_path, pool=pool, causal=causal, head=head)
    assert_same_answers(classifier, make_session(classifier, tmp_path))


@pytest.mark.parametrize('family', ['gpt', 'bert with pairs', 'mpnet'])
def test_the_padding_does_not_matter(family, tmp_path):
    """Whoever serves the graph pads with the id that their tokenizer has for it."""
    classifier = make_classifier(tmp_path, **FAMILIES[family])
    session = make_session(classifier, tmp_path)
    rng = np.random.default_rng(0)
    lengths = np.array([[9], [1], [BLOCK_SIZE]])
    mask = (np.arange(BLOCK_SIZE) < lengths).astype(np.int64)
    idx = rng.integers(VOCAB_SIZE, size=mask.shape)
    other_idx = np.where(mask == 1, idx, rng.integers(VOCAB_SIZE, size=mask.shape))
    answers = [
        session.run(None, {'input_ids': ids, 'attention_mask': mask})[0] for ids in (idx, other_idx)
    ]
    assert np.abs(answers[0] - answers[1]).max() < NOISE


def test_pairs_have_token_types(tmp_path):
    """Else pairs would get the answers of single texts, which are others."""
    classifier = make_classifier(tmp_path, **FAMILIES['bert with pairs'])
    session = make_session(classifier, tmp_path)
    texts = make_texts([9])
    texts[0][4] = SEPARATOR
    classifier.model.config.pair_sep = -1
    assert largest_difference(classifier, session, texts, 1) > 1e-3


def test_the_temperature_is_inside(tmp_path):
    """And the logits, for whoever wants another one, are those before it."""
    classifier = make_classifier(tmp_path)
    session = make_session(classifier, tmp_path)
    texts = make_texts([9])
    inputs = {'input_ids': texts[0][None], 'attention_mask': np.ones((1, 9), dtype=np.int64)}
    probabilities, logits = session.run(['probabilities', 'logits'], inputs)
    assert np.abs(logits - fast.predict(classifier.model, texts)).max() < NOISE
    assert np.abs(probabilities - our_probabilities(classifier, texts)).max() < NOISE
    classifier.temperature = 1.0
    assert np.abs(probabilities - our_probabilities(classifier, texts)).max() > 1e-3


def test_more_than_block_size_is_refused(tmp_path):
    """onnxruntime says so, instead of reading past the table of positions."""
    classifier = make_classifier(tmp_path)
    session = make_session(classifier, tmp_path)
    with pytest.raises(Exception, match='out of bounds|out of data bounds'):
        to_onnx.run_graph(session, make_texts([BLOCK_SIZE + 1]))


# -----------------------------------------------------------------------------
# the file


def test_a_trained_run_is_exported_and_checked(trained, tmp_path):
    """On its own test texts, and on random ones up to block_size."""
    classifier = Classifier(trained.out_dir, device='cpu', dtype='float32')
    path = str(tmp_path / 'new/run.onnx')
    result = to_onnx.export(classifier, path)
    assert result['path'] == path
    assert result['bytes'] == os.path.getsize(path)
    assert result['opset'] == onnx.load(path).opset_import[0].version
    assert result['checked'] == to_onnx.N_TEXTS
    assert result['same_labels'] == to_onnx.N_TEXTS
    assert result['max_difference'] < NOISE
    assert sorted(os.listdir(tmp_path / 'new')) == ['run.onnx', 'tokenizer.json']


def test_the_metadata_says_how_to_use_the_graph(tmp_path):
    """With it and the tokenizer a server needs neither the run nor this project."""
    classifier = make_classifier(tmp_path, {'lowercase': True, 'speakers': 'customer'})
    path = str(tmp_path / 'run.onnx')
    to_onnx.export(classifier, path)
    metadata = to_onnx.open_session(path, 1).get_modelmeta().custom_metadata_map
    assert {name: json.loads(value) for name, value in metadata.items()} == {
        'labels': ['negative', 'naïve', 'positive'],
        'block_size': BLOCK_SIZE,
        'keep': 'last',
        'cleaning': {
            'strip_html': False,
            'speakers': 'customer',
            'strip_brackets': False,
            'lowercase': True,
        },
        'temperature': TEMPERATURE,
        'tokenizer': 'bpe257',
    }


def test_a_classifier_of_transformers_has_no_cleaning_in_its_metadata(tmp_path):
    """It was not trained here, so its texts are taken as they are."""
    classifier = make_classifier(tmp_path)
    classifier.checkpoint['recipe'] = {'uncleaned': True}
    assert to_onnx.describe(classifier)['cleaning'] == '{}'


@pytest.mark.parametrize('keep', ['first', 'last', 'both'])
def test_the_tokenizer_beside_the_graph_gives_our_ids(keep, tmp_path):
    """tokenizers, numpy and onnxruntime are then enough to answer, also for too long a text."""
    tokenizers = pytest.importorskip('tokenizers')
    classifier = make_classifier(tmp_path, keep=keep)
    to_onnx.export(classifier, str(tmp_path / 'run.onnx'))
    coder = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
    coder.encode_special_tokens = True
    texts = ['late:  naïve \U0001f600', 'It was <|endoftext|> and it never arrived.']
    encodings = coder.encode_batch(texts)
    our_ids = classifier.encode(texts)
    assert len(our_ids[0]) < BLOCK_SIZE < len(our_ids[1])
    if keep != 'both':  # which it cannot do, and the graph refuses what is not cut
        our_ids = [list(classifier.truncate(ids)) for ids in our_ids]
    real_ids = [encoding.ids[: sum(encoding.attention_mask)] for encoding in encodings]
    assert real_ids == our_ids
    assert len(encodings[0].ids) == len(encodings[1].ids)


def test_int8_is_a_smaller_file_that_says_how_it_differs(tmp_path):
    """Rounded weights give other probabilities, so they are reported and not refused."""
    classifier = make_classifier(tmp_path, n_embd=64)
    exact = to_onnx.export(classifier, str(tmp_path / 'run.onnx'))
    rounded = to_onnx.export(classifier, str(tmp_path / 'run.onnx'), int8=True)
    assert rounded['path'] == str(tmp_path / 'run.int8.onnx')
    assert rounded['bytes'] < 0.6 * exact['bytes']
    assert to_onnx.TOLERANCE < rounded['max_difference'] < 0.5
    assert 0.7 * to_onnx.N_TEXTS < rounded['same_labels'] <= to_onnx.N_TEXTS
    metadata = to_onnx.open_session(rounded['path'], 1).get_modelmeta().custom_metadata_map
    assert json.loads(metadata['labels']) == classifier.labels


def test_int8_has_a_scale_for_each_column(tmp_path):
    """One for a whole matrix doubled the error (docs/speed.md)."""
    classifier = make_classifier(tmp_path)
    result = to_onnx.export(classifier, str(tmp_path / 'run.onnx'), int8=True)
    weights = {tensor.name: tensor for tensor in onnx.load(result['path']).graph.initializer}
    n_inner = classifier.model.config.n_inner
    scales = [list(tensor.dims) for name, tensor in weights.items() if name.endswith('_scale')]
    assert [n_inner] in scales


def test_int8_is_judged_on_real_texts_where_there_are_any(trained, tmp_path):
    """Labels of random tokens would say little of how well rounded weights do."""
    classifier = Classifier(trained.out_dir, device='cpu', dtype='float32')
    result = to_onnx.export(classifier, str(tmp_path / 'run.onnx'), int8=True)
    assert result['checked'] == 60  # all rows of the test split


# -----------------------------------------------------------------------------
# refused, in one line


def test_a_graph_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    """An older file of that name stays as it was, and nothing else is left."""
    classifier = make_classifier(tmp_path)
    path = tmp_path / 'run.onnx'
    path.write_text('older')
    real_write_graph = to_onnx.write_graph

    def write_wrong_graph(classifier, path):
        classifier.temperature = 1.0
        real_write_graph(classifier, path)
        classifier.temperature = TEMPERATURE

    monkeypatch.setattr(to_onnx, 'write_graph', write_wrong_graph)
    with pytest.raises(ValueError, match='is not written, because its probabilities differ by'):
        to_onnx.export(classifier, str(path))
    assert path.read_text() == 'older'
    assert sorted(os.listdir(tmp_path)) == ['best.pt', 'run.onnx']


def test_probabilities_that_are_no_numbers_are_not_written(tmp_path):
    """A comparison with nan is never true, so the check must not be one for a difference."""
    result = {'checked': 6, 'same_labels': 6, 'max_difference': float('nan')}
    with pytest.raises(ValueError, match='differ by up to nan'):
        to_onnx.check_result(result, 'run.onnx')

    classifier = make_classifier(tmp_path)
    with torch.no_grad():
        classifier.model.head.bias.fill_(float('nan'))
    with pytest.raises(ValueError, match='answers with numbers that are not finite'):
        to_onnx.export(classifier, str(tmp_path / 'run.onnx'))


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime', 'tokenizers'])
def test_a_missing_package_is_one_line(package, tmp_path, monkeypatch):
    classifier = make_classifier(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError) as error:
        to_onnx.export(classifier, str(tmp_path / 'run.onnx'), int8=True)
    assert str(error.value) == (
        f'ONNX files need the package {package}, which is not installed; '
        'pip install onnx onnxruntime tokenizers'
    )
    assert os.listdir(tmp_path) == ['best.pt']


@pytest.mark.parametrize('changes', [{'dtype': 'bfloat16'}, {'windows': True}])
def test_what_the_graph_cannot_do_is_refused(changes, tmp_path):
    """A graph of rounded weights, or of a run that reads all of a text, would answer otherwise."""
    make_classifier(tmp_path)
    opening = {'device': 'cpu', 'dtype': 'float32'} | changes
    classifier = Classifier(str(tmp_path), **opening)
    with pytest.raises(ValueError, match="open the run with Classifier.*dtype='float32'"):
        to_onnx.export(classifier, str(tmp_path / 'run.onnx'))


def test_a_model_above_two_gigabytes_is_refused(tmp_path, monkeypatch):
    """protobuf counts in 32 bits, and torch would fail after minutes."""
    classifier = make_classifier(tmp_path)
    monkeypatch.setattr(to_onnx, 'MAX_BYTES', 1000)
    with pytest.raises(ValueError, match='GB of weights.*use --to=hf'):
        to_onnx.export(classifier, str(tmp_path / 'run.onnx'))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    classifier = make_classifier(tmp_path)
    with pytest.raises(ValueError, match='run.onnx cannot be written .*; make room, or name'):
        to_onnx.export(classifier, str(tmp_path / 'best.pt/run.onnx'))
