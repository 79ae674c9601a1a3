# python -m pytest tests/test_evaluate.py
"""The command: what it prints, which run it takes, and one line for each mistake."""

import csv
import shutil

import pytest
from conftest import run

from nanosentiment.predictions import read_predictions

LAST_LINE = (
    'split n accuracy accuracy_ci macro_f1 per_class confusion nll ece ece_calibrated temperature '
    'baseline files'
)


@pytest.fixture(scope='module')
def out_dir(trained, tmp_path_factory):
    """A copy of the shared run."""
    folder = tmp_path_factory.mktemp('evaluate') / 'run'
    return str(shutil.copytree(trained.out_dir, folder))


@pytest.fixture
def call(out_dir, run_here):
    """A function that runs the script in this process, on the shared run unless told otherwise."""

    def call_script(status=0, **settings):
        settings = {'out_dir': out_dir, 'device': 'cpu'} | settings
        args = [f'--{name}={value}' for name, value in settings.items()]
        return run_here('evaluate.py', *args, status=status)

    return call_script


def test_the_command_prints_tables_and_one_json_line(out_dir, trained):
    result = run('evaluate.py', f'--out_dir={out_dir}', '--device=cpu')
    assert set(LAST_LINE.split()) <= result.last.keys()
    assert not {'settings', 'versions', 'git'} & result.last.keys()
    assert result.last['accuracy'] == trained.result.last['test']['accuracy']
    assert result.last['dtype'] == 'torch.float32', 'as it was trained'
    for words in ('majority', 'bag of words', 'calibration', 'coverage', 'errors'):
        assert f'\n{words}' in result.out


def test_a_mistake_is_one_line_and_exit_status_2(tmp_path):
    (tmp_path / 'best.pt').write_bytes(b'hello')
    result = run('evaluate.py', f'--out_dir={tmp_path}', status=2)
    assert result.err.count('\n') == 1
    assert f'{tmp_path}/best.pt cannot be opened' in result.err


def test_a_missing_file_is_one_line_and_exit_status_2(out_dir):
    result = run('evaluate.py', f'--out_dir={out_dir}', '--input=nothing.csv', status=2)
    assert result.err.count('\n') == 1
    assert 'nothing.csv' in result.err


@pytest.mark.parametrize(
    'settings, words',
    [
        ({'out_dir': 'nowhere'}, 'nowhere cannot be opened (FileNotFoundError: '),
        ({'out_dir': 'nowhere/last.pt'}, 'nowhere/last.pt cannot be opened'),
        ({'split': 'dev'}, 'no dev split'),
        ({'against': 'nowhere'}, 'nowhere/predictions.csv cannot be read'),
        ({'dtype': 'float99'}, 'dtype=float99 is unknown'),
        ({'batch_size': 0}, 'batch_size=0 is too small'),
    ],
)
def test_mistakes_are_explained(call, settings, words):
    error = call(**settings, status=2).err
    assert words in error
    assert error.count('\n') == 1


def test_a_missing_evaluation_to_compare_with_is_reported_first(call, out_dir, tmp_path):
    """Nothing is evaluated, and the remedy is the command for that very file."""
    shutil.copytree(out_dir, tmp_path / 'run', ignore=shutil.ignore_patterns('*.csv'))
    error = call(out_dir=str(tmp_path / 'run'), against='nowhere', split='val', status=2).err
    assert 'nowhere/predictions-val.csv cannot be read' in error
    assert 'run python evaluate.py --out_dir=nowhere --split=val' in error
    assert not list(tmp_path.rglob('*.csv'))


def test_a_moved_checkpoint_still_evaluates_files(call, out_dir, tmp_path):
    """Its training data need not be there, and a file's columns may have other names."""
    shutil.copy(f'{out_dir}/best.pt', tmp_path)
    (tmp_path / 'new.csv').write_text(
        'body,said,is\nnot this,lovely thanks,good\nnor this,"=broken, awful",bad\n'
    )
    call(
        out_dir=str(tmp_path),
        input=f'{tmp_path}/new.csv',
        text_column='said',
        label_column='is',
    )
    rows, _, _ = read_predictions(tmp_path, input='new.csv')
    assert [row['text'] for row in rows] == ['lovely thanks', '=broken, awful']


def test_a_checkpoint_is_compared_with_another(call, out_dir):
    """last.pt and best.pt lie in one folder, and each has tables of its own."""
    call()
    printed = call(out_dir=f'{out_dir}/last.pt', against=out_dir).out
    assert f'accuracy better than {out_dir} by ' in printed
    assert 'McNemar p = ' in printed


def test_repeats_are_evaluated_together(call, out_dir, tmp_path):
    """Each run gets its tables, the last line their mean."""
    for name in ('seed-1', 'seed-2'):
        shutil.copytree(out_dir, tmp_path / name, ignore=shutil.ignore_patterns('*.csv', '*.json'))
    printed = call(out_dir=str(tmp_path), split='val').out
    assert '2 runs, mean and standard deviation: accuracy ' in printed
    assert ', macro-F1 ' in printed
    for name in ('seed-1', 'seed-2'):
        with open(tmp_path / name / 'predictions-val.csv', newline='') as f:
            assert len(list(csv.DictReader(f))) > 20
