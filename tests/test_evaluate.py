# python -m pytest tests/test_evaluate.py
# a run's judgement: the same figures whatever the way, every row accounted for, and nothing that a spreadsheet would run

import csv
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import run

from batches import predict
from evaluate import open_run, safe
from metrics import ece, fit_temperature, softmax
from prepare import Split, prepare


def rows_of(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope='module')
def judged(trained, tmp_path_factory):
    """The shared run in a folder of our own, judged on test and val."""
    out_dir = shutil.copytree(trained.out_dir, tmp_path_factory.mktemp('judged') / 'run')
    args = [f'--out_dir={out_dir}', '--device=cpu']  # in float32, as it was trained
    test, val = (run('evaluate.py', *args, f'--split={split}') for split in ('test', 'val'))
    return SimpleNamespace(out_dir=out_dir, test=test, val=val, args=trained.args, result=trained.result)


def test_the_judgement_is_that_of_training(judged):
    assert judged.test.last['accuracy'] == judged.result.last['test']['accuracy']
    assert judged.val.last['macro_f1'] == pytest.approx(judged.result.last['best']['val_macro_f1'])
    assert judged.val.last['nll'] == pytest.approx(judged.result.last['best']['val_loss'], rel=1e-5)
    known = 'split n accuracy accuracy_ci macro_f1 per_class confusion nll ece ece_calibrated temperature baseline files'
    assert set(known.split()) <= judged.test.last.keys()
    assert 'bag of words' in judged.test.out and 'majority' in judged.test.out


def test_every_row_is_there_once_with_its_own_text(judged):
    """A shift by one between texts and predictions would go unnoticed in every figure, and ruin the error analysis."""
    test_file = next(arg.partition('=')[2] for arg in judged.args if arg.startswith('--test_file'))
    raw, rows = rows_of(test_file), rows_of(judged.out_dir / 'predictions.csv')
    assert [int(row['row']) for row in rows] == list(range(len(raw)))
    assert [(row['text'], row['label']) for row in rows] == [(row['body'], row['mood']) for row in raw]
    train_file = next(arg.partition('=')[2] for arg in judged.args if arg.startswith('--dataset'))
    raw = rows_of(train_file)
    for row in rows_of(judged.out_dir / 'predictions-val.csv'):
        assert (row['text'], row['label']) == (raw[int(row['row'])]['body'], raw[int(row['row'])]['mood'])
    wrong = [row for row in rows if row['label'] != row['prediction']]
    errors = rows_of(judged.out_dir / 'errors.csv')
    assert sorted(row['row'] for row in errors) == sorted(row['row'] for row in wrong)
    assert [float(row['confidence']) for row in errors] == sorted((float(row['confidence']) for row in errors), reverse=True)
    assert len(wrong) == round((1 - judged.test.last['accuracy']) * len(rows))


def test_a_word_is_rare_if_training_never_showed_it(judged, tmp_path):
    """What cleaning removes is not rare: a raw text is compared as the model is shown it."""
    (tmp_path / 'test.csv').write_text('body,mood\n<b>LOVELY</b> (thanks),good\nzyzzyva thanks,good\n')
    args = [arg for arg in judged.args if not arg.startswith('--test_file')] + [f'--test_file={tmp_path}/test.csv']
    run('train.py', *args, '--max_iters=1', f'--out_dir={tmp_path}/run')
    rows = rows_of(tmp_path / 'run' / 'predictions.csv')
    assert ['rare' in row['tags'] for row in rows] == [False, True]


def test_the_tables_say_what_the_model_says(judged):
    model, _, checkpoint = open_run(str(judged.out_dir))
    split = Split(prepare(checkpoint['settings']), 'val', model.config.block_size, checkpoint['settings']['keep'])
    logits = predict(model, split)
    rows, T = rows_of(judged.out_dir / 'predictions-val.csv'), checkpoint['temperature']
    found = np.array([[float(row[f'logit_{label}']) for label in checkpoint['labels']] for row in rows])
    np.testing.assert_allclose(found, logits, atol=1e-4)
    p = softmax(logits / T)
    np.testing.assert_allclose([float(row['confidence']) for row in rows], p.max(axis=1), atol=1e-4)
    loss = [-np.log(q[checkpoint['labels'].index(row['label'])]) for q, row in zip(p, rows)]
    np.testing.assert_allclose([float(row['loss']) for row in rows], loss, atol=1e-4)
    assert T == pytest.approx(fit_temperature(logits, split.labels.astype(int)), rel=1e-3)  # of validation, never of test
    saved = json.loads((judged.out_dir / 'evaluation-val.json').read_text())
    assert saved['temperature'] == T and saved['ece_calibrated'] == pytest.approx(ece(p, split.labels), abs=1e-6)


def test_a_labelled_file_is_judged_like_a_split(judged):
    test_file = next(arg.partition('=')[2] for arg in judged.args if arg.startswith('--test_file'))
    again = run('evaluate.py', f'--out_dir={judged.out_dir}', f'--input={test_file}', '--device=cpu').last
    assert again['confusion'] == judged.test.last['confusion'] and os.path.exists(judged.out_dir / 'predictions-input.csv')
    assert again['nll'] == pytest.approx(judged.test.last['nll'], rel=1e-5)


def test_a_moved_checkpoint_still_judges_files(judged, tmp_path):
    """The data it was trained on need not be there, nor the new ones have its columns' names."""
    shutil.copy(judged.out_dir / 'best.pt', tmp_path)
    (tmp_path / 'new.csv').write_text('body,said,is\nnot this,lovely thanks,good\nnor this,"=broken, awful",bad\n')
    run('evaluate.py', f'--out_dir={tmp_path}', f'--input={tmp_path}/new.csv', '--text_column=said', '--label_column=is')
    assert [row['text'] for row in rows_of(tmp_path / 'predictions-input.csv')] == ['lovely thanks', "'=broken, awful"]
    assert [safe(x) for x in ('=1', '+1', '-1', '@a', 'fine', '')] == ["'=1", "'+1", "'-1", "'@a", 'fine', '']


def test_another_checkpoint_keeps_its_judgement_to_itself(judged, tmp_path):
    """The last weights' figures must not stand for the best's, which --seeds and the report read; nor a broken file's."""
    for name in ('best.pt', 'last.pt', 'evaluation.json', 'predictions.csv'):
        shutil.copy(judged.out_dir / name, tmp_path)
    before = (tmp_path / 'evaluation.json').read_bytes()
    run('evaluate.py', f'--out_dir={tmp_path}/last.pt', f'--against={judged.out_dir}')
    assert (tmp_path / 'evaluation.json').read_bytes() == before and (tmp_path / 'predictions-last.csv').exists()
    for content in (b'hello', b'', (tmp_path / 'best.pt').read_bytes()[:5000]):
        (tmp_path / 'best.pt').write_bytes(content)
        done = run('evaluate.py', f'--out_dir={tmp_path}', status=2)
        assert done.err.count('\n') == 1 and f'{tmp_path}/best.pt cannot be opened' in done.err, done.err


def test_a_run_with_other_labels_is_compared(judged, tmp_path):
    """One of two runs may know a label more: where both read a file of the common ones, they can be compared."""
    (tmp_path / 'rows.csv').write_text('body,mood\nlovely thanks,good\nlate and awful,bad\n')
    found = run('evaluate.py', f'--out_dir={judged.out_dir}', f'--input={tmp_path}/rows.csv').last
    shutil.copy(judged.out_dir / 'best.pt', tmp_path)
    rows = (judged.out_dir / 'predictions-input.csv').read_text().splitlines()
    cells = rows[1].split(',')
    cells[3] = 'meh'
    (tmp_path / 'predictions-input.csv').write_text('\n'.join([rows[0], ','.join(cells), *rows[2:]]))
    args = [f'--out_dir={judged.out_dir}', f'--input={tmp_path}/rows.csv', f'--against={tmp_path}']
    assert run('evaluate.py', *args).last['against']['accuracy']['difference'] == found['accuracy'] - 0.5
    (tmp_path / 'rows.csv').write_text('body,mood\nlovely thanks a lot,good\nlate and awful,bad\n')
    assert 'on other rows' in run('evaluate.py', *args, status=2).err, 'as many rows of the same labels, but other texts'


@pytest.mark.parametrize(
    'args, words',
    [
        (['--out_dir=nowhere'], 'train it'),
        (['--split=dev'], 'no dev split'),
        (['--input=nothing.csv'], 'nothing.csv'),
        (['--input={}/odd.csv'], 'labels of this run are'),
        (['--input={}/odd.csv', '--label_column=x'], '--label_column'),
        (['--against=nowhere'], 'nowhere'),
        (['--dtype=float99'], 'dtype=float99 is unknown'),
        (['--batch_size=0'], 'batch_size=0 is too small'),
    ],
)
def test_mistakes_are_one_line(judged, args, words, tmp_path):
    (tmp_path / 'odd.csv').write_text('body,mood\nlovely,purple\n')
    first = [] if args[0].startswith('--out_dir') else [f'--out_dir={judged.out_dir}']
    done = run('evaluate.py', *first, *(arg.format(tmp_path) for arg in args), status=2)
    assert words in done.err.strip().splitlines()[-1] and 'Traceback' not in done.err


def test_seeds_and_folds(judged, tmp_path):
    """One command for all; what is finished is not done again, what broke off goes on; every row out of fold once."""
    short = [*judged.args, '--max_epochs=2', '--log_interval=1000']
    out = tmp_path / 'seeds'
    first = run('train.py', *short, f'--out_dir={out}', '--seeds=2')
    each = [json.loads((out / f'seed-{k}' / 'summary.json').read_text()) for k in (1, 2)]
    scores = [x['test']['accuracy'] for x in each]
    assert [x['seed'] for x in each] == [1, 2]
    assert first.last['accuracy'] == pytest.approx(np.mean(scores))
    assert first.last['accuracy_sd'] == pytest.approx(np.std(scores, ddof=1))
    alone = run('train.py', *short, f'--out_dir={tmp_path}/alone', '--seed=2').last
    assert alone['test'] == each[1]['test']
    mixed = run('evaluate.py', f'--out_dir={out}', f'--against={tmp_path}/alone').last['against']  # one of the two is itself
    assert mixed['n'] == alone['n_test'] and mixed['accuracy']['difference'] == pytest.approx((scores[0] - scores[1]) / 2)

    stamp = os.path.getmtime(out / 'seed-1' / 'best.pt')
    os.remove(out / 'seed-2' / 'summary.json')  # as if it had been broken off after the last checkpoint
    again = run('train.py', *short, f'--out_dir={out}', '--seeds=2')
    assert again.last == first.last and os.path.getmtime(out / 'seed-1' / 'best.pt') == stamp
    other = run('train.py', *short, f'--out_dir={out}', '--seeds=2', '--learning_rate=0.1', status=2)
    assert 'learning_rate' in other.err
    longer = run('train.py', *short, f'--out_dir={out}', '--seeds=3', '--max_epochs=3', status=2)
    assert 'max_epochs' in longer.err, 'a mean of shorter and longer runs'
    path = out / 'seed-1' / 'evaluation.json'
    path.write_text((scratch := path.read_text()).replace('"init_from": "scratch"', '"init_from": "minilm"'))
    mixed = run('train.py', *short, f'--out_dir={out}', '--seeds=2', status=2)
    assert 'init_from' in mixed.err, 'a mean of different nets'
    path.write_text(scratch)

    os.utime(out / 'seed-1' / 'last.pt')  # as if it had been begun anew, and broken off: it goes on, and is judged anew
    assert 'seed 1 of 2' in run('train.py', *short, f'--out_dir={out}', '--seeds=2').out

    folds = run('train.py', *short, f'--out_dir={tmp_path}/folds', '--folds=3').last
    seen = [row['row'] for k in (1, 2, 3) for row in rows_of(tmp_path / 'folds' / f'fold-{k}' / 'predictions.csv')]
    assert len(seen) == len(set(seen)) == folds['n'] == 240
    assert folds['out_of_fold_accuracy'] == np.trace(folds['confusion']) / 240
    supports = [x['support'] for x in folds['per_class'].values()]
    assert supports == np.sum(folds['confusion'], axis=1).tolist() and sum(supports) == 240
    assert '240 rows once each' in run('evaluate.py', f'--out_dir={tmp_path}/folds').out
    assert 'once' not in run('evaluate.py', f'--out_dir={tmp_path}/folds', '--split=val').out, 'there each fold has its own'
    against = run('evaluate.py', f'--out_dir={tmp_path}/folds', f'--against={tmp_path}/folds').last
    shutil.copytree(tmp_path / 'folds' / 'fold-1', out / 'fold-1')  # as --folds=5 leaves it in the same out_dir
    assert run('evaluate.py', f'--out_dir={out}').last['runs'] == 2, 'folds are tested on other texts than seeds'
    assert against['against']['mcnemar_p'] == 1 and against['out_of_fold_macro_f1'] == folds['out_of_fold_macro_f1']


def test_folds_are_alike_and_share_no_text(tmp_path):
    """Stratified, to one text of each label; the tokens of a fold are learned without its texts; equal texts stay together."""
    with open(tmp_path / 'rows.csv', 'w') as f:
        rows = [f'word{i % 50} word{i},{"ab" if i % 7 else "c"}\n' for i in range(103)]
        f.writelines(['text,label\n', *rows, 'word1 word1,ab\n'])
    common = dict(dataset=str(tmp_path / 'rows.csv'), text_column='text', label_column='label', test_file='', strict=False)
    common |= dict(data_dir=str(tmp_path), tokenizer='bpe300', lowercase=True, strip_brackets=True, strip_html=True)
    common |= dict(speakers='all', val_fraction=0.2, test_fraction=0.1, split_seed=0)
    tested = []
    for fold in range(1, 6):
        folder = prepare(common | dict(folds=5, fold=fold))
        splits = {name: Split(folder, name) for name in ('train', 'val', 'test')}
        rows = [set(split.rows.tolist()) for split in splits.values()]
        assert len(set.union(*rows)) == sum(map(len, rows)) == 104
        counts = np.bincount(splits['test'].labels)
        assert abs(counts - np.array([89, 15]) / 5).max() < 2
        assert ('1' in map(str, rows[2])) == ('103' in map(str, rows[2]))
        tested += splits['test'].rows.tolist()
    assert sorted(tested) == list(range(104))
    with pytest.raises(ValueError, match='fold'):
        prepare(common | dict(folds=5, fold=6))


def test_the_checkpoint_knows_its_temperature(judged):
    """sample_classify.py gives calibrated probabilities; below the threshold its answer is "uncertain"."""
    checkpoint = torch.load(judged.out_dir / 'best.pt', weights_only=True)
    row = rows_of(judged.out_dir / 'predictions.csv')[0]
    args = [f'--out_dir={judged.out_dir}', '--json=True', f'--text={row["text"]}']
    sure, unsure = (run('sample_classify.py', *args, f'--threshold={t}').last for t in (0, 1.0))
    assert checkpoint['temperature'] != 1 and sure['probability'] == pytest.approx(float(row['confidence']), abs=1e-3)
    assert sure['label'] == row['prediction'] and unsure['label'] in ('uncertain', row['prediction'])
    assert (unsure['label'] == 'uncertain') == (unsure['probability'] < 1)
