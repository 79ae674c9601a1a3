# python -m pytest tests/test_evaluate.py
"""The command: what it prints, which run it takes, and one line for each mistake."""

import csv
import shutil

import pytest
import torch
from conftest import read_checkpoint, run

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


def test_suspects_go_with_no_other_question(out_dir):
    flags = ('--suspects=True', '--split=val')
    result = run('evaluate.py', f'--out_dir={out_dir}', *flags, status=2)
    assert 'leave out --against, --input and --split' in result.err


def test_a_missing_file_is_one_line_and_exit_status_2(out_dir):
    result = run('evaluate.py', f'--out_dir={out_dir}', '--input=nothing.csv', status=2)
    assert result.err.count('\n') == 1
    assert 'nothing.csv' in result.err


@pytest.mark.parametrize(
    'settings, words',
    [
        ({'out_dir': 'nowhere'}, 'there is no run nowhere; is the name right?'),
        ({'out_dir': 'nowhere/last.pt'}, 'there is no run nowhere/last.pt; is the name right?'),
        ({'split': 'dev'}, 'no dev split'),
        ({'against': 'nowhere'}, 'nowhere/predictions.csv cannot be read'),
        ({'dtype': 'float99'}, 'dtype=float99 is unknown'),
        ({'batch_size': 0}, 'batch_size=0 is too small'),
        ({'dataset': 'nowhere.csv'}, 'there is no nowhere.csv any more, which is the dataset of'),
        ({'against': 'nowhere', 'windows': True}, 'nowhere/predictions-windows.csv cannot be'),
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


def change_checkpoint(out_dir, folder, change):
    """A copy of best.pt, changed by a function, in a folder of its own -> the folder."""
    checkpoint = read_checkpoint(f'{out_dir}/best.pt')
    change(checkpoint)
    folder.mkdir()
    torch.save(checkpoint, folder / 'best.pt')
    return str(folder)


def test_a_run_is_judged_where_its_data_lies_elsewhere(call, out_dir, tmp_path):
    """
    A run from another machine: the error names the flag, and with it the scores are the same.

    Files are known by their content, so that a folder or file may have another name.
    """
    here = read_checkpoint(f'{out_dir}/best.pt')['settings']
    shutil.copy(here['dataset'], tmp_path / 'renamed.csv')

    def move(checkpoint):
        checkpoint['settings']['dataset'] = '/elsewhere/rows.csv'
        checkpoint['settings']['data_dir'] = '/proc/elsewhere'  # nobody can write there

    moved = change_checkpoint(out_dir, tmp_path / 'moved', move)
    error = call(out_dir=moved, status=2).err
    assert 'there is no /elsewhere/rows.csv any more' in error
    assert 'name its new place: --dataset=<path>' in error
    assert error.count('\n') == 1

    new_places = {'dataset': tmp_path / 'renamed.csv', 'data_dir': tmp_path}
    result = call(out_dir=moved, **new_places).last
    expected = call().last
    for name in ('n', 'confusion', 'nll'):
        assert result[name] == expected[name]


def test_a_moved_test_file_has_a_flag_of_its_own(call, out_dir, tmp_path):
    test_file = read_checkpoint(f'{out_dir}/best.pt')['settings']['test_file']

    def move(checkpoint):
        checkpoint['settings']['test_file'] = '/elsewhere/test.csv'

    moved = change_checkpoint(out_dir, tmp_path / 'moved', move)
    assert '--test_file=<path>' in call(out_dir=moved, status=2).err
    assert call(out_dir=moved, test_file=test_file).last['n'] == 60


def test_other_data_in_the_new_place_is_refused(call, out_dir, tmp_path):
    """A path proves nothing: with other rows, a training row may be in the test split."""
    settings = read_checkpoint(f'{out_dir}/best.pt')['settings']
    with open(settings['dataset']) as f:
        lines = f.readlines()
    (tmp_path / 'rows.csv').write_text(''.join(lines[:-1]))
    error = call(dataset=tmp_path / 'rows.csv', data_dir=tmp_path, status=2).err
    assert 'holds other data than' in error.splitlines()[-1]


def test_a_run_of_an_older_version_is_judged_on_files_only(call, out_dir, tmp_path):
    """Its splits were drawn by other code. One line says so, before anything is prepared."""

    def age(checkpoint):
        label_names = checkpoint['recipe'].pop('label_names')
        checkpoint['recipe'].pop('table')
        checkpoint['recipe'] |= {'format': 2, 'names': label_names}

    old = change_checkpoint(out_dir, tmp_path / 'old', age)
    error = call(out_dir=old, status=2).err
    assert 'is of an older version' in error
    assert error.count('\n') == 1
    (tmp_path / 'rows.csv').write_text('body,mood\nlovely,good\nlate,bad\n')
    assert call(out_dir=old, input=tmp_path / 'rows.csv').last['n'] == 2


def test_whole_texts_are_judged_beside_cut_ones(call, out_dir):
    """Each has its own files; no text here is longer than block_size, so the scores are equal."""
    plain = call().last
    whole = call(windows=True).last
    assert whole['files']['evaluation'] == f'{out_dir}/evaluation-windows.json'
    assert whole['confusion'] == plain['confusion']


def test_how_the_input_is_written_can_be_told(call, tmp_path):
    """Nothing in the file tells this delimiter, or that it has no header."""
    path = tmp_path / 'rows.csv'
    path.write_text('good#lovely\nbad#late\n')
    form = {'delimiter': '#', 'header': False, 'text_column': 1, 'label_column': 0}
    assert call(input=path, **form).last['n'] == 2


def test_labels_that_the_run_lacks_are_said_on_stderr(call, tmp_path):
    """They count as wrong answers, so the score must not look like the model's usual one."""
    path = tmp_path / 'rows.csv'
    path.write_text('body,mood\nlovely,good\nlate,meh\n')
    result = call(input=path)
    assert f'{path}: 1 of 2 texts have a label unknown to the run (meh)' in result.err
    assert result.last['accuracy'] <= 0.5
    assert result.last['unknown_labels'] == ['meh']


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
