"""
A new data set, metric, cleaning step, model family or schedule touches one place.

Each test adds a toy in that one place and trains with it, from the command line to the summary.
"""

import json
import os

import numpy as np
import pytest
import torch
from conftest import ROOT, read_checkpoint, read_log, write_rows

import prepare
from model import Config, Transformer
from nanosentiment import cleaning, datasets, metrics, pretrained
from nanosentiment.checkpoint import Classifier
from nanosentiment.evaluation import compare_runs, format_scores

SHORT = ['--max_iters=30', '--lr_decay_iters=30', '--eval_interval=10', '--log_interval=1']


def read_evaluation(out_dir):
    with open(f'{out_dir}/evaluation.json') as f:
        return json.load(f)


# -----------------------------------------------------------------------------


def test_a_data_set_is_one_row_of_datasets(tiny, run_here, tmp_path, monkeypatch):
    os.makedirs(tmp_path / 'data/toys')
    write_rows(tmp_path / 'data/toys/mine.csv', 120)
    write_rows(tmp_path / 'data/toys/yours.csv', 30, seed=1)
    toys = {
        'columns': ('body', 'mood'),
        'label_names': {'odd': 'strange'},
        'train': ('mine.csv', ''),
        'test': ('yours.csv', ''),
        'url': '',
    }
    monkeypatch.setitem(datasets.DATASETS, 'toys', toys)

    data = ['--dataset=toys', f'--data_dir={tmp_path}/data', '--text_column=', '--label_column=']
    flags = [*data, '--test_file=', *SHORT, f'--out_dir={tmp_path}/run']
    last = run_here('train.py', *tiny, *flags).last

    assert last['dataset'] == 'toys'
    assert (last['n_train'] + last['n_val'], last['n_test']) == (120, 30)
    assert list(last['test']['recall']) == ['bad', 'good', 'strange']


# -----------------------------------------------------------------------------


def worst_recall(table):
    """Confusion tables (..., K, K) -> (...) the recall of the label that is found least."""
    recall = metrics.precision_recall_f1(table)[1]
    return recall.min(axis=-1)


def test_a_metric_is_one_function(tiny, run_here, tmp_path, monkeypatch):
    """It chooses the best checkpoint, stands in the tables, and compares two runs."""
    monkeypatch.setitem(metrics.METRICS, 'worst_recall', worst_recall)
    args = [*tiny, *SHORT, '--metric=val_worst_recall']

    result = run_here('train.py', *args, f'--out_dir={tmp_path}/run')
    run_here('train.py', *args, '--seed=2', f'--out_dir={tmp_path}/other')

    # selection
    evaluations = [line for line in read_log(tmp_path / 'run') if 'val_loss' in line]
    best = max(evaluations, key=lambda line: (line['val_worst_recall'], -line['val_loss']))
    assert result.last['best']['iter'] == best['iter']
    assert result.last['best']['val_worst_recall'] == best['val_worst_recall']

    # the evaluation and its table
    evaluation = read_evaluation(tmp_path / 'run')
    recalls = [scores['recall'] for scores in evaluation['per_class'].values()]
    assert evaluation['worst_recall'] == min(recalls)
    assert f'worst_recall {min(recalls):.3f}' in result.out
    assert 'worst_recall' in format_scores(evaluation, evaluation['labels'])

    # the paired bootstrap
    comparison = compare_runs(f'{tmp_path}/run', f'{tmp_path}/other')
    other = read_evaluation(tmp_path / 'other')['worst_recall']
    difference = comparison['worst_recall']['difference']
    low, high = comparison['worst_recall']['ci']
    assert difference == pytest.approx(evaluation['worst_recall'] - other)
    assert low <= difference <= high


# -----------------------------------------------------------------------------


def remove_word(text, value):
    """'a word less', 'word' -> 'a  less'"""
    return text.replace(value, '') if value else text


def test_a_cleaning_step_is_one_function_and_its_setting(tiny, run_here, tmp_path, monkeypatch):
    """Preparation, training and use all apply it, and another value is another recipe."""
    monkeypatch.setitem(cleaning.STEPS, 'remove_word', remove_word)
    monkeypatch.setattr(prepare, 'remove_word', '', raising=False)
    flags = [*SHORT, f'--data_dir={tmp_path}/data']

    run_here('train.py', *tiny, *flags, f'--out_dir={tmp_path}/plain')
    run_here('train.py', *tiny, *flags, '--remove_word=parcel', f'--out_dir={tmp_path}/run')

    assert read_checkpoint(tmp_path / 'run/best.pt')['recipe']['remove_word'] == 'parcel'
    assert len(os.listdir(tmp_path / 'data/rows')) == 2
    plain = Classifier(f'{tmp_path}/plain', 'cpu')
    classifier = Classifier(f'{tmp_path}/run', 'cpu')
    with_word = 'the parcel was late'
    without_word = 'the was late'
    assert plain.encode([with_word]) != plain.encode([without_word])
    assert classifier.encode([with_word]) == classifier.encode([without_word])
    # no training text had the word, so the vocabulary has no token for it
    assert len(plain.tokenizer.encode('parcel')) < len(classifier.tokenizer.encode('parcel'))


# -----------------------------------------------------------------------------

# our modules and those of the toy family, {} being the layer
TOY_WEIGHTS = {
    'wte': 'words',
    'wpe': 'places',
    'ln': 'exit_norm',
    'h.{}.ln_1': 'layers.{}.norm_1',
    'h.{}.attn.c_attn': 'layers.{}.query_key_value',
    'h.{}.attn.c_proj': 'layers.{}.mix',
    'h.{}.ln_2': 'layers.{}.norm_2',
    'h.{}.mlp.c_fc': 'layers.{}.widen',
    'h.{}.mlp.c_proj': 'layers.{}.narrow',
    'head': 'score',
}
TOY_FAMILY = pretrained.Family(
    prefix='toy.',
    weights=TOY_WEIGHTS,
    fields={
        'vocab_size': 'n_words',
        'block_size': 'n_places',
        'n_layer': 'depth',
        'n_head': 'heads',
        'n_embd': 'width',
        'gelu': 'activation',
    },
    defaults={
        'causal': False,
        'pre_norm': True,
        'pool': 'mean',
        'gelu': 'exact',
        'eps': 1e-5,
        'n_type': 0,
        'head': 'linear',
    },
)


def write_tokenizer(path, words):
    """A tokenizer.json of whole words with [SEP] at the end, and its number of tokens."""
    tokenizers = pytest.importorskip('tokenizers')
    vocab = {word: i for i, word in enumerate(['[UNK]', '[SEP]', *words])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='$A [SEP]', special_tokens=[('[SEP]', vocab['[SEP]'])]
    )
    tokenizer.save(str(path))
    return len(vocab)


def write_checkpoint(folder):
    """A checkpoint of the toy family with random weights. Returns its tensors."""
    os.makedirs(folder)
    n_vocab = write_tokenizer(folder / 'tokenizer.json', ['lovely', 'late', 'moon', 'parcel'])
    sizes = {'n_words': n_vocab, 'n_places': 32, 'depth': 2, 'heads': 2, 'width': 16}
    with open(folder / 'config.json', 'w') as f:
        json.dump({'model_type': 'toy', **sizes}, f)

    config = Config(n_layer=2, n_head=2, n_embd=16, block_size=32, vocab_size=n_vocab)
    tensors = {}
    for name, weight in Transformer(config).state_dict().items():
        module, _, kind = name.rpartition('.')
        if module == 'head':
            continue
        layer = [part for part in module.split('.') if part.isdecimal()]
        pattern = module
        for number in layer:
            pattern = pattern.replace(f'.{number}.', '.{}.')
        their_module = TOY_WEIGHTS[pattern].format(*layer)
        tensors[f'toy.{their_module}.{kind}'] = weight
    torch.save(tensors, folder / 'pytorch_model.bin')
    return tensors


def test_a_model_family_is_one_entry_of_pretrained(tiny, run_here, tmp_path, monkeypatch):
    monkeypatch.setitem(pretrained.FAMILIES, 'toy', TOY_FAMILY)
    tensors = write_checkpoint(tmp_path / 'toy')
    data = [arg for arg in tiny if not arg.startswith(('--n_', '--tokenizer'))]
    flags = [f'--init_from={tmp_path}/toy', '--freeze=1', f'--out_dir={tmp_path}/run']

    result = run_here('train.py', *data, *SHORT, *flags)

    assert 'starts fresh: head' in result.out
    assert result.last['tokenizer'] == 'toy'
    best = read_checkpoint(tmp_path / 'run/best.pt')
    assert best['config']['pool'] == 'mean'
    weights = best['model']
    assert torch.equal(weights['wte.weight'], tensors['toy.words.weight'])
    frozen = tensors['toy.layers.0.query_key_value.weight']
    trained = tensors['toy.layers.1.query_key_value.weight']
    assert torch.equal(weights['h.0.attn.c_attn.weight'], frozen)
    assert not torch.equal(weights['h.1.attn.c_attn.weight'], trained)


# -----------------------------------------------------------------------------

BRANCH = """
    if decay_lr == 'steps':
        return learning_rate * 0.5 ** int(4 * progress)
"""


def test_a_schedule_is_one_branch_of_get_lr(tiny, run_here, tmp_path):
    with open(f'{ROOT}/train.py', encoding='utf-8') as f:
        source = f.read()
    before_error = "\n    raise ValueError(f'decay_lr="
    assert source.count(before_error) == 1
    new_source = source.replace(before_error, BRANCH.rstrip() + before_error)
    (tmp_path / 'train.py').write_text(new_source, encoding='utf-8')

    flags = ['--decay_lr=steps', '--warmup_iters=2', f'--out_dir={tmp_path}/run']
    run_here(tmp_path / 'train.py', *tiny, *SHORT, *flags)

    rates = [line['lr'] for line in read_log(tmp_path / 'run') if 'lr' in line]
    steps = np.arange(2, 30)
    expected = 3e-3 * 0.5 ** (4 * (steps - 2) // 28)
    assert rates[:2] == [1.5e-3, 3e-3]
    np.testing.assert_allclose(rates[2:], expected)
