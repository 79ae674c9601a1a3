"""
Every file that the project reads, damaged in six ways: what is read is right, or it is refused in
one line, or its rows are accounted for. Never a traceback, never another answer without a word.

A case is a file, a kind of damage and a random place. 300 of them run here; more by hand:
$ FLIPS=10000 python -m pytest -n 2 -m stress tests/stress/test_flip.py
"""

import json
import math
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import run, write_rows

import prepare
import report
from nanosentiment import Classifier, browser
from nanosentiment.baseline import fit_baselines
from nanosentiment.card import model_card
from nanosentiment.checkpoint import open_checkpoint, resume_checkpoint
from nanosentiment.files import read_sealed_json
from nanosentiment.llm import read_cache
from nanosentiment.memmaps import Split, read_meta
from nanosentiment.predictions import read_predictions
from nanosentiment.tables import Table

pytestmark = pytest.mark.stress
FLIPS = int(os.getenv('FLIPS', '300'))
TEXTS = ['late and broken', 'lovely, thanks', 'a purple moon']

# -----------------------------------------------------------------------------
# damage


def flip_bit(content, rng):
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def zero_block(content, rng):
    begin = rng.randrange(len(content))
    n = min(512, len(content) - begin)
    content[begin : begin + n] = bytes(n)
    return content


def repeat_block(content, rng):
    begin = rng.randrange(len(content))
    return content[:begin] + content[begin : begin + 100] + content[begin:]


def swap_blocks(content, rng):
    half = len(content) // 2
    begin = rng.randrange(max(half - 64, 1))
    first, second = content[begin : begin + 64], content[begin + half : begin + half + 64]
    n = min(len(first), len(second))
    content[begin : begin + n], content[begin + half : begin + half + n] = second[:n], first[:n]
    return content


def append_junk(content, rng):
    return content + bytes(rng.randrange(256) for _ in range(40))


DAMAGES = (flip_bit, cut, zero_block, repeat_block, swap_blocks, append_junk)

# -----------------------------------------------------------------------------
# what is read of a file; two readings can be compared


def read_best(folder):
    classifier = Classifier(folder / 'run/best.pt', device='cpu', dtype='float32')
    return classifier.labels, classifier.temperature, classifier.logits(TEXTS).tobytes()


def read_last(folder):
    """As train.py --init_from=resume does, up to the optimizer, which test_checks.py damages."""
    settings = json.loads((folder / 'settings.json').read_text())
    path = str(folder / 'run/last.pt')
    last, _ = resume_checkpoint(path, settings | {'init_from': 'resume'}, settings, set())
    model, _, _ = open_checkpoint(path)
    weights = {name: weight.numpy().tobytes() for name, weight in model.state_dict().items()}
    return weights, last['run'], last['labels']


def read_prepared(folder):
    settings = json.loads((folder / 'settings.json').read_text())
    prepared = prepare.prepare(settings)
    meta = read_meta(prepared)
    tokens = [[ids.tolist() for ids in Split(prepared, name)] for name in meta['rows']]
    labels = [Split(prepared, name).labels.tolist() for name in meta['rows']]
    state = read_meta(prepared, 'tokenizer_state.json')
    return tokens, labels, meta['labels'], state, read_meta(prepared, 'report.json')


def read_baseline(folder):
    settings = json.loads((folder / 'settings.json').read_text())
    prepared = prepare.prepare(settings)
    splits = {name: Split(prepared, name) for name in ('train', 'val', 'test')}
    _, tokenizer, _ = open_checkpoint(str(folder / 'run'))
    return fit_baselines(prepared, splits, tokenizer)


def read_card(folder):
    evaluation = read_sealed_json(folder / 'run/evaluation.json', 'evaluate again')
    errors = read_predictions(folder / 'run', 'errors')[0]
    rows, labels, logits = read_predictions(folder / 'run')
    return model_card(evaluation, errors, 'run'), rows, labels, logits.tobytes()


def read_page(folder):
    run = folder / 'run'
    return browser.collect([run], [], folder, report.read_log(run))


def read_suspects(folder):
    """It has no checksum, as read_log says."""
    browser.read_suspects(folder / 'run', {'row': [], 'text': [], 'truth': []}, [])


def read_summary(folder):
    return report.comparison_cells([read_sealed_json(folder / 'run/summary.json', 'train again')])


def read_exported(folder):
    classifier = Classifier(folder / 'hf', device='cpu', dtype='float32')
    return classifier.labels, classifier.temperature, classifier.logits(TEXTS).tobytes()


def read_log(folder):
    """It has no checksum: only that it is refused or read is asked for, not that it is the same."""
    browser.collect([folder / 'run'], [], folder, report.read_log(folder / 'run'))


def read_answers(folder):
    read_cache(folder / 'run/llm_cache.jsonl')


def read_rows(folder):
    """
    A table is a person's own file: each of its lines must be in a row, used or rejected. Its line
    numbers tell, because a row in quotes may have several lines.
    """
    table = Table(folder / 'rows.csv', delimiter=',', encoding='utf-8')
    numbers = [line_number for line_number, _, _ in table]
    n_lines = len((folder / 'rows.csv').read_bytes().splitlines())
    assert numbers == sorted(set(numbers))
    assert not numbers or numbers[-1] <= n_lines


READERS = {
    'run/best.pt': read_best,
    'run/last.pt': read_last,
    'data/train.tok': read_prepared,
    'data/train.off': read_prepared,
    'data/train.lab': read_prepared,
    'data/val.row': read_prepared,
    'data/meta.json': read_prepared,
    'data/report.json': read_prepared,
    'data/tokenizer_state.json': read_prepared,
    'data/baseline.json': read_baseline,
    'run/evaluation.json': read_card,
    'run/predictions.csv': read_card,
    'run/errors.csv': read_card,
    'run/explanations.jsonl': read_page,
    'run/suspects.csv': read_suspects,
    'run/summary.json': read_summary,
    'run/metrics.jsonl': read_log,
    'run/llm_cache.jsonl': read_answers,
    'hf/config.json': read_exported,
    'hf/model.safetensors': read_exported,
    'hf/tokenizer.json': read_exported,
    'hf/tokenizer_config.json': read_exported,
    'rows.csv': read_rows,
}

# -----------------------------------------------------------------------------
# the cases


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder with a run, its prepared data under data/, its export under hf/, and rows.csv."""
    folder = tmp_path_factory.mktemp('flip')
    write_rows(folder / 'rows.csv', 120)
    flags = f'--dataset={folder}/rows.csv --data_dir={folder}/prepared --text_column=body'.split()
    flags += ['--label_column=mood', '--n_layer=2', '--n_head=2', '--n_embd=16', '--block_size=32']
    flags += ['--tokenizer=bpe300', '--max_epochs=2', '--device=cpu', '--dtype=float32']
    run('train.py', *flags, f'--out_dir={folder}/run')
    run('export.py', f'--out_dir={folder}/run', f'--output={folder}/hf')
    run('evaluate.py', f'--out_dir={folder}/run')  # which explains errors
    suspects = 'row,text,label,suggested,p_label,p_suggested,fold\n'
    suspects += '7,late again,good,bad,0.01,0.98,1\n' * 10
    (folder / 'run/suspects.csv').write_text(suspects)
    (folder / 'run/llm_cache.jsonl').write_text('["a", "good"]\n["b", "bad"]\n' * 10)
    _, _, best = open_checkpoint(str(folder / 'run'))
    (folder / 'settings.json').write_text(json.dumps(best['settings']))
    (prepared,) = folder.glob('prepared/rows/*/')
    os.symlink(prepared, folder / 'data')
    return folder


@pytest.mark.parametrize('name', READERS)
def test_damage_is_noticed_or_does_not_matter(files, name, capsys):
    read = READERS[name]
    path = Path(files, name)
    whole = path.read_bytes()
    expected = read(files)
    rng = random.Random(name)
    counts = Counter()
    capsys.readouterr()
    try:
        for case in range(math.ceil(FLIPS / len(READERS))):
            damage = DAMAGES[case % len(DAMAGES)]
            path.write_bytes(damage(bytearray(whole), rng))
            try:
                with np.errstate(all='raise'):
                    result = read(files)
            except ValueError as error:
                message = str(error)
                assert '\n' not in message and len(message) <= 400 + 3 * len(str(files))
                assert path.name in message or str(path.parent) in message
                counts['refused'] += 1
                continue
            said = capsys.readouterr().err
            if result == expected:
                counts['the same'] += 1
            else:
                assert 'changed since the export' in said, (name, damage, case)
                counts['another answer, with a word'] += 1
    finally:
        path.write_bytes(whole)
    with capsys.disabled():
        if FLIPS > 300:
            print(f'{name:26} {dict(counts)}')
