# python -m pytest tests/test_repeats.py
"""Seeds and folds: which are run, which go on, and that a mean holds only what belongs together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, SLOW, run, start

import prepare
from nanosentiment.files import lock_folder, read_sealed_json, write_sealed_json
from nanosentiment.memmaps import Split
from nanosentiment.predictions import read_predictions
from nanosentiment.repeats import find_runs, print_summary, run_repeats, summarize

# -----------------------------------------------------------------------------
# find_runs


def make_folders(parent, *names):
    for name in names:
        os.makedirs(parent / name)


def test_seeds_come_in_the_order_of_their_numbers(tmp_path):
    make_folders(tmp_path, 'seed-10', 'seed-2', 'seed-1', 'seed-old', 'notes-3')
    expected = [str(tmp_path / f'seed-{number}') for number in (1, 2, 10)]
    assert find_runs(str(tmp_path)) == expected


def test_seeds_and_folds_are_not_mixed(tmp_path):
    """They are tested on different texts, so a common mean would say nothing."""
    make_folders(tmp_path, 'fold-1', 'fold-2')
    assert len(find_runs(str(tmp_path))) == 2
    make_folders(tmp_path, 'seed-1')
    assert find_runs(str(tmp_path)) == [str(tmp_path / 'seed-1')]


def test_a_folder_without_repeats_is_a_run_itself(tmp_path):
    folder = tmp_path / 'a[b]*'  # no pattern
    make_folders(folder, 'seed-')
    for path in (str(folder), str(tmp_path / 'missing'), 'out/x/last.pt'):
        assert find_runs(path) == [path]


# -----------------------------------------------------------------------------
# run_repeats, with a script in place of train.py that needs no time

FAKE_TRAIN = """
import json, os, signal, sys, time

flags = dict(arg.removeprefix('--').split('=', 1) for arg in sys.argv[1:])
out_dir = flags['out_dir']
kind = 'fold' if 'fold' in flags else 'seed'
k = int(flags[kind])
os.makedirs(out_dir, exist_ok=True)
with open('starts.txt', 'a') as f:
    f.write(f'{kind} {k} {flags.get("init_from", "scratch")}' + chr(10))

def write(name, content):
    with open(os.path.join(out_dir, name), 'w') as f:
        json.dump(content, f)

write('last.pt', 0)
if flags.get('mode') == 'wait':
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    write('waiting', 0)
    while not stopped:
        time.sleep(0.01)
    sys.exit(0)
if flags.get('mode') == 'fail' and k == 2:
    sys.exit(3)
if flags.get('mode') != 'no test':
    settings = {'learning_rate': float(flags['learning_rate']), 'dataset': flags['dataset']}
    settings |= {'seed': 0, 'seeds': 0, 'fold': 0, 'folds': int(flags['folds']), kind: k}
    settings |= {'max_epochs': 3, 'out_dir': out_dir}
    confusion = [[k, 1], [0, 4]]
    accuracy = (k + 4) / (k + 5)
    scores = {'n': k + 5, 'accuracy': accuracy, 'macro_f1': 0.5, 'nll': 0.4, 'ece_calibrated': 0.1}
    about = {'run': out_dir, 'split': 'test', 'labels': ['good', 'bad'], 'settings': settings}
    baseline = {'bag_of_words': {'confusion': confusion}}
    write('evaluation.json', scores | about | {'confusion': confusion, 'baseline': baseline})
write('summary.json', {'run': out_dir})
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A fake train.py in an empty working directory, and the settings that go with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RANK', raising=False)
    script = tmp_path / 'train.py'
    script.write_text(FAKE_TRAIN)
    monkeypatch.setattr(sys, 'argv', [str(script), '--learning_rate=0.1', '--dataset=mine'])
    config = {'out_dir': 'out', 'seed': 0, 'seeds': 2, 'fold': 0, 'folds': 0, 'max_epochs': 3}
    config |= {'learning_rate': 0.1, 'dataset': 'mine'}
    return SimpleNamespace(config=config, starts=tmp_path / 'starts.txt')


def repeat(fake, changeable=('out_dir',), **settings):
    """run_repeats with some settings changed -> exit status, the runs that it started."""
    fake.starts.write_text('')
    config = fake.config | settings
    argv = [*sys.argv, f'--folds={config["folds"]}']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', argv)
        status = run_repeats(config, changeable)
    return status, fake.starts.read_text().split('\n')[:-1]


def test_each_seed_is_trained_once(fake, capfd):
    assert repeat(fake) == (0, ['seed 1 scratch', 'seed 2 scratch'])
    lines = capfd.readouterr().out.strip().split('\n')
    assert lines[0] == f'seed 1 of 2: {os.path.join("out", "seed-1")}'
    summary = json.loads(lines[-1])
    scores = [5 / 6, 6 / 7]
    assert summary['accuracy_each'] == scores
    assert summary['accuracy'] == pytest.approx(np.mean(scores))
    assert summary['accuracy_sd'] == pytest.approx(np.std(scores, ddof=1))
    assert 'out_of_fold_macro_f1' not in summary

    assert repeat(fake) == (0, []), 'what is finished is not done again'
    assert repeat(fake, seeds=3) == (0, ['seed 3 scratch'])


def test_a_seed_that_broke_off_goes_on(fake):
    """With a checkpoint it resumes; a summary older than the checkpoint is of an earlier run."""
    repeat(fake)
    os.remove('out/seed-2/summary.json')
    assert repeat(fake) == (0, ['seed 2 resume'])
    later = time.time() + 10
    os.utime('out/seed-1/last.pt', (later, later))
    assert repeat(fake) == (0, ['seed 1 resume'])


def test_a_mean_holds_no_runs_with_other_settings(fake):
    repeat(fake)
    with pytest.raises(ValueError, match='seed-1 was trained with other values of max_epochs'):
        repeat(fake, max_epochs=4)
    with pytest.raises(ValueError, match='learning_rate, dataset'):
        repeat(fake, learning_rate=0.2, dataset='other')
    assert repeat(fake, changeable=('out_dir', 'max_epochs'), max_epochs=4) == (0, [])


def test_a_failure_ends_the_repeats_with_its_exit_status(fake, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--mode=fail'])
    assert repeat(fake, seeds=3) == (3, ['seed 1 scratch', 'seed 2 scratch'])


def test_runs_without_a_test_split_have_no_mean(fake, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--mode=no test'])
    with pytest.raises(ValueError, match='no test split'):
        repeat(fake)


def test_folds_add_up_to_one_table(fake, capfd):
    assert repeat(fake, seeds=0, folds=2) == (0, ['fold 1 scratch', 'fold 2 scratch'])
    printed = capfd.readouterr().out
    summary = json.loads(printed.strip().rpartition('\n')[2])
    assert '13 rows once each' in printed
    assert summary['n'] == 13
    assert summary['confusion'] == [[3, 2], [0, 8]]
    assert summary['out_of_fold_accuracy'] == 11 / 13
    assert summary['out_of_fold_macro_f1'] == pytest.approx((6 / 8 + 16 / 18) / 2)
    assert summary['out_of_fold_bag_of_words_macro_f1'] == summary['out_of_fold_macro_f1']
    assert summary['per_class']['good'] == {
        'precision': 1.0,
        'recall': 0.6,
        'f1': 0.75,
        'support': 5,
    }


def test_folds_with_another_seed_are_not_averaged(fake):
    """Seeds differ in their seed, but of folds it is a setting like the others."""
    repeat(fake, seeds=0, folds=2)
    with pytest.raises(ValueError, match='fold-1 was trained with other values of seed;'):
        repeat(fake, seeds=0, folds=2, seed=7)


def test_missing_folds_are_told(fake, capfd):
    """evaluate.py may be called before all folds are trained."""
    repeat(fake, seeds=0, folds=3)
    evaluations = []
    for k in (1, 3):
        with open(f'out/fold-{k}/evaluation.json') as f:
            evaluations.append(json.load(f))
    capfd.readouterr()
    print_summary(summarize('out', evaluations))
    printed = capfd.readouterr().out
    assert 'out of fold, 14 rows of 2 of 3 folds: macro-F1 ' in printed
    assert 'once each' not in printed


@pytest.mark.parametrize(
    'settings, words',
    [
        ({'seeds': 1}, 'seeds=1 is too few'),
        ({'seeds': 0, 'folds': 1}, 'folds=1 is too few'),
        ({'seeds': 2, 'folds': 3}, 'seeds=2 and folds=3 do not go together'),
    ],
)
def test_settings_that_do_not_fit_start_nothing(fake, settings, words):
    with pytest.raises(ValueError, match=words):
        repeat(fake, **settings)
    assert fake.starts.read_text() == ''


def test_torchrun_is_refused(fake, monkeypatch):
    """Each of its processes would start all the runs."""
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(ValueError, match='without torchrun'):
        repeat(fake)


def test_a_signal_reaches_the_run_and_ends_the_repeats(fake):
    """The run saves its checkpoint and ends; the next seed must not begin then."""
    code = 'import json, sys; from nanosentiment.repeats import run_repeats; '
    code += 'config = json.loads(sys.argv.pop(1)); sys.argv[:1] = []; '
    code += 'sys.exit(run_repeats(config, ["out_dir"]))'
    command = [
        sys.executable,
        '-c',
        code,
        json.dumps(fake.config),
        *sys.argv,
        '--folds=0',
        '--mode=wait',
    ]
    parent = subprocess.Popen(command, env=os.environ | {'PYTHONPATH': ROOT})
    deadline = time.time() + 30 * SLOW
    while not os.path.exists('out/seed-1/waiting') and time.time() < deadline:
        time.sleep(0.01)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=30 * SLOW) == 0
    assert fake.starts.read_text() == 'seed 1 scratch\n'


def test_a_metric_of_later_date_is_left_out_of_the_mean():
    """Runs that were evaluated before a metric was added do not have it."""
    evaluation = {'run': 'seed-1', 'split': 'test', 'n': 9, 'accuracy': 0.5, 'nll': 0.7}
    summary = summarize('out', [evaluation, evaluation | {'macro_f1': 0.4, 'accuracy': 0.7}])
    assert summary['accuracy'] == 0.6
    assert 'macro_f1' not in summary


# -----------------------------------------------------------------------------
# with the real train.py


def test_folds_are_alike_and_share_no_text(tmp_path):
    """
    Each text is tested in one fold, equal texts in the same. The labels are spread evenly, to one
    text, and the tokens of a fold are learned without the texts that it tests.
    """
    with open(tmp_path / 'rows.csv', 'w') as f:
        f.write('text,label\n')
        for i in range(103):
            label = 'ab' if i % 7 else 'c'
            f.write(f'word{i % 50} word{i},{label}\n')
        f.write('word1 word1,ab\n')  # the same as row 1
    settings = {
        'dataset': str(tmp_path / 'rows.csv'),
        'text_column': 'text',
        'label_column': 'label',
        'test_file': '',
        'data_dir': str(tmp_path),
        'tokenizer': 'bpe300',
        'lowercase': True,
        'strip_brackets': True,
        'strip_html': True,
        'speakers': 'all',
        'val_fraction': 0.2,
        'test_fraction': 0.1,
        'split_seed': 0,
        'folds': 5,
    }
    tested = []
    for fold in range(1, 6):
        folder = prepare.prepare(settings | {'fold': fold})
        train, val, test = (Split(folder, name) for name in ('train', 'val', 'test'))
        rows = [*train.rows, *val.rows, *test.rows]
        assert sorted(rows) == list(range(104))
        counts = np.bincount(test.labels)
        assert abs(counts - np.array([89, 15]) / 5).max() < 2
        assert (1 in test.rows) == (103 in test.rows)
        tested += test.rows.tolist()
    assert sorted(tested) == list(range(104))
    with pytest.raises(ValueError, match='fold'):
        prepare.prepare(settings | {'fold': 6})


def summary_of(folder):
    return json.loads((folder / 'summary.json').read_text())


@pytest.mark.skipif(os.name == 'nt', reason='Windows tells no parent')
def test_a_seed_ends_with_the_process_that_started_it(tiny, tmp_path):
    """Killed, that one cannot say so, and the seed would train on beside the next attempt."""
    args = [*tiny, '--max_epochs=1000', f'--out_dir={tmp_path}']
    parent = start('train.py', *args, '--seeds=2')
    log_path = tmp_path / 'seed-1/metrics.jsonl'
    deadline = time.monotonic() + 60 * SLOW
    while not log_path.exists():
        assert time.monotonic() < deadline, 'it does not begin'
        time.sleep(0.05)
    err = run('train.py', *args, '--seeds=2', status=2).err
    assert f'{tmp_path} is in use by process {parent.pid}' in err
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60 * SLOW
    while True:
        try:
            lock_folder(tmp_path / 'seed-1').close()
            break
        except ValueError:
            assert time.monotonic() < deadline, 'it trains on'
            time.sleep(0.05)
    assert (tmp_path / 'seed-1/last.pt').exists()
    assert not (tmp_path / 'seed-1/summary.json').exists(), 'it has trained to its end'


@pytest.mark.slow
def test_seeds_of_train_py(tiny, tmp_path):
    """One of several seeds is the run that it is alone, and goes on where it broke off."""
    args = [*tiny, '--max_epochs=2', '--log_interval=1000']
    out = tmp_path / 'seeds'
    first = run('train.py', *args, f'--out_dir={out}', '--seeds=2')
    alone = run('train.py', *args, f'--out_dir={tmp_path}/alone', '--seed=2').last
    summaries = [summary_of(out / f'seed-{k}') for k in (1, 2)]
    scores = [summary['test']['accuracy'] for summary in summaries]
    assert [summary['seed'] for summary in summaries] == [1, 2]
    assert alone['test'] == summaries[1]['test']
    assert first.last['accuracy'] == pytest.approx(np.mean(scores))

    # one of the two seeds is the run that they are compared with
    both = run('evaluate.py', f'--out_dir={out}', f'--against={tmp_path}/alone', '--device=cpu')
    against = both.last['against']
    assert both.last['runs'] == 2
    assert against['n'] == alone['n_test']
    assert against['accuracy']['difference'] == pytest.approx((scores[0] - scores[1]) / 2)

    # as if it had been broken off after the last checkpoint
    stamp = os.path.getmtime(out / 'seed-1' / 'best.pt')
    os.remove(out / 'seed-2' / 'summary.json')
    again = run('train.py', *args, f'--out_dir={out}', '--seeds=2')
    assert again.last == first.last
    assert os.path.getmtime(out / 'seed-1' / 'best.pt') == stamp

    # max_epochs may change when a run goes on, but not within a mean
    longer = run('train.py', *args, f'--out_dir={out}', '--seeds=3', '--max_epochs=3', status=2)
    assert 'max_epochs' in longer.err
    other = run('train.py', *args, f'--out_dir={out}', '--seeds=2', '--n_embd=32', status=2)
    assert 'n_embd' in other.err

    # a run from other weights is a different net
    path = out / 'seed-1' / 'evaluation.json'
    evaluation = read_sealed_json(path, '')
    evaluation['settings']['init_from'] = 'minilm'
    write_sealed_json(path, evaluation)
    mixed = run('train.py', *args, f'--out_dir={out}', '--seeds=2', status=2)
    assert 'init_from' in mixed.err


@pytest.mark.slow
def test_folds_of_train_py(tiny, tmp_path):
    """Together they predict every row of the training file once, also when evaluated again."""
    folds = tmp_path / 'folds'
    args = [*tiny, '--max_epochs=1', '--log_interval=1000', f'--out_dir={folds}', '--folds=3']
    trained = run('train.py', *args).last
    rows = []
    for k in (1, 2, 3):
        predictions, _, _ = read_predictions(folds / f'fold-{k}')
        rows += [row['row'] for row in predictions]
    assert len(rows) == len(set(rows)) == trained['n'] == 240
    assert np.sum(trained['confusion']) == 240
    assert trained['out_of_fold_accuracy'] == np.trace(trained['confusion']) / 240

    evaluate = ['evaluate.py', f'--out_dir={folds}', '--device=cpu']
    evaluated = run(*evaluate, f'--against={folds}')
    assert '240 rows once each' in evaluated.out
    assert evaluated.last['against']['mcnemar_p'] == 1
    assert evaluated.last['out_of_fold_macro_f1'] == trained['out_of_fold_macro_f1']
    val = run(*evaluate, '--split=val')
    assert 'once each' not in val.out, 'the validation texts of two folds may be the same'

    # as --folds leaves them beside the seeds in one out_dir
    for k in (1, 2):
        shutil.copytree(folds / f'fold-{k}', tmp_path / 'both' / f'seed-{k}')
    shutil.copytree(folds / 'fold-3', tmp_path / 'both' / 'fold-3')
    assert run('evaluate.py', f'--out_dir={tmp_path}/both', '--device=cpu').last['runs'] == 2
