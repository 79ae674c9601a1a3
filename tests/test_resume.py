"""A run that is killed, stopped or moved goes on, and ends as if nothing had happened."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time

import pytest
import torch
from conftest import SLOW, assert_same_weights, read_checkpoint, read_log, start

OBJECTIVE = ['--class_weight=sqrt', '--lm_weight=0.1']  # that of the fixture `trained`


def kill_when(process, is_time):
    """Kills a process, as kill -9 does, as soon as is_time() is true."""
    while process.poll() is None:
        if is_time():
            process.kill()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL, 'it ended before it could be killed'


def train_until(iter_num, args, out_dir):
    """Trains, and kills the run when it has saved last.pt and logged step iter_num; 0: at once."""

    def is_time():
        if not os.path.exists(out_dir / 'metrics.jsonl'):  # which comes after last.pt
            return False
        return iter_num == 0 or f'"iter": {iter_num},' in (out_dir / 'metrics.jsonl').read_text()

    kill_when(start('train.py', *args, f'--out_dir={out_dir}'), is_time)


def wait_for_iter(iter_num, process, out_dir):
    """Returns when a running training has logged this step, or has ended."""
    log_path = out_dir / 'metrics.jsonl'
    while process.poll() is None:
        if log_path.exists() and f'"iter": {iter_num},' in log_path.read_text():
            return
        time.sleep(0.01)


def copy_run(trained, folder):
    """A copy of the finished run, to be changed. Returns its last.pt as a dict."""
    shutil.copytree(trained.out_dir, folder)
    return read_checkpoint(folder / 'last.pt')


def times_of_files(folder):
    """{name of a file: when it was last written}"""
    return {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)}


# -----------------------------------------------------------------------------
# killed and stopped


@pytest.mark.parametrize(
    'iter_num',
    [
        60,
        pytest.param(0, marks=pytest.mark.stress),
        pytest.param(130, marks=pytest.mark.stress),
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(trained, run_here, tmp_path, iter_num):
    """kill -9 at any moment costs nothing but time: the weights and the log end up the same."""
    args = [*trained.args, *OBJECTIVE]
    train_until(iter_num, args, tmp_path)
    resumed = run_here('train.py', *args, f'--out_dir={tmp_path}', '--init_from=resume')
    assert_same_weights(f'{trained.out_dir}/best.pt', tmp_path / 'best.pt')
    assert_same_weights(f'{trained.out_dir}/last.pt', tmp_path / 'last.pt')
    assert read_log(tmp_path) == read_log(trained.out_dir)
    assert resumed.last['test'] == trained.result.last['test']


@pytest.mark.stress
def test_a_run_killed_as_soon_as_it_goes_on_keeps_its_log(trained, tmp_path):
    """The new metrics.jsonl holds the old lines when it takes the old one's place."""
    log_path = tmp_path / 'metrics.jsonl'
    train_until(60, trained.args, tmp_path)
    saved_iter = read_checkpoint(tmp_path / 'last.pt')['run']['iter']
    old_file = os.stat(log_path).st_ino
    old_lines = [line for line in read_log(tmp_path) if line['iter'] <= saved_iter]
    assert saved_iter == 54
    assert old_lines

    flags = [f'--out_dir={tmp_path}', '--init_from=resume', '--log_interval=1000']
    process = start('train.py', *trained.args, *flags)
    kill_when(process, lambda: os.stat(log_path).st_ino != old_file)

    assert read_log(tmp_path)[: len(old_lines)] == old_lines


@pytest.mark.parametrize(
    'number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.stress)]
)
def test_a_signal_saves_and_says_how_to_go_on(trained, run_here, tmp_path, monkeypatch, number):
    """The step is finished and last.pt written; the printed command works as it is."""
    args = [*trained.args, '--out_dir=my runs/1', *OBJECTIVE]
    process = start('train.py', *args, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    wait_for_iter(30, process, tmp_path / 'my runs/1')
    process.send_signal(number)
    out, _ = process.communicate(timeout=60 * SLOW)

    # a script that calls train.py sees that it was not finished, and by which signal
    assert process.returncode == 128 + number
    summary = json.loads(out.strip().rpartition('\n')[2])
    assert summary['stopped'] == 'signal'
    last = read_checkpoint(tmp_path / 'my runs/1/last.pt')
    assert 30 <= last['run']['iter'] < 162
    assert shlex.split(last['command'])[2:] == args  # to be typed again

    command = re.search(r'to go on: python train.py (.*)', out)[1]
    monkeypatch.chdir(tmp_path)
    resumed = run_here('train.py', *shlex.split(command)).last
    assert resumed['stopped'] == 'max'
    assert resumed['test'] == trained.result.last['test']
    assert_same_weights(f'{trained.out_dir}/best.pt', tmp_path / 'my runs/1/best.pt')


@pytest.mark.stress
def test_a_second_signal_ends_the_run_at_once(trained, tmp_path):
    """A step may take minutes, and whoever presses Ctrl-C twice does not want to wait for it."""
    args = [*trained.args, f'--out_dir={tmp_path}', '--max_epochs=1000']
    process = start('train.py', *args, stdout=subprocess.PIPE, text=True)
    wait_for_iter(30, process, tmp_path)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60 * SLOW)
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert read_checkpoint(tmp_path / 'last.pt')['run']['iter'] >= 27


@pytest.mark.skipif(os.name == 'nt', reason='there is no lock on Windows')
def test_two_trainings_in_one_folder_are_one_too_many(trained, run_here, tmp_path):
    """
    In 9 of 12 pairs both ended as if all were well, and in 3 of these one printed the test score of
    the other as its own.
    """
    args = [*trained.args, f'--out_dir={tmp_path}/run', '--max_epochs=1000']
    first = start('train.py', *args)
    wait_for_iter(30, first, tmp_path / 'run')
    for flags in ([], ['--init_from=resume']):
        err = run_here('train.py', *trained.args, *flags, f'--out_dir={tmp_path}/run', status=2).err
        assert f'{tmp_path}/run is in use by process {first.pid}' in err
        assert err.count('\n') == 1
    first.kill()
    first.wait()
    flags = [f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_epochs=1']
    run_here('train.py', *flags)  # the lock ended with its process


@pytest.mark.skipif(not hasattr(signal, 'SIGHUP'), reason='Windows closes windows in another way')
def test_a_closed_terminal_saves_like_ctrl_c(trained, tmp_path):
    """It is told twice, by the kernel and by the shell."""
    args = [*trained.args, f'--out_dir={tmp_path}', '--max_epochs=1000']

    def heed_hangups():  # also if these tests run under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    process = start('train.py', *args, preexec_fn=heed_hangups)
    wait_for_iter(30, process, tmp_path)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60 * SLOW) == 128 + signal.SIGHUP
    assert read_checkpoint(tmp_path / 'last.pt')['run']['iter'] >= 30


@pytest.mark.skipif(not hasattr(signal, 'SIGHUP'), reason='nohup is of Unix')
def test_a_run_under_nohup_outlives_its_terminal(trained, tmp_path):
    args = [*trained.args, f'--out_dir={tmp_path}', '--max_epochs=12']

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start('train.py', *args, preexec_fn=ignore)
    wait_for_iter(30, process, tmp_path)
    process.send_signal(signal.SIGHUP)
    assert process.wait(120 * SLOW) == 0


@pytest.mark.skipif(os.name == 'nt', reason='a reader that goes away is seen by SIGPIPE and EPIPE')
def test_a_reader_that_goes_away_costs_no_training(trained, run_here, tmp_path):
    """`python train.py ... | head` ended in a traceback, and lost what came after the last save."""
    args = [*trained.args, f'--out_dir={tmp_path}', '--max_epochs=1000']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    process = start('train.py', *args, **pipes)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60 * SLOW) == 128 + signal.SIGTERM
    assert err.strip().splitlines()[-1].startswith('stdout cannot be written (Broken pipe)')
    assert 'Traceback' not in err
    flags = [f'--out_dir={tmp_path}', '--init_from=resume', '--max_epochs=1']
    run_here('train.py', *flags)


@pytest.mark.skipif(os.name == 'nt', reason='pseudo terminals are of Unix')
def test_a_terminal_that_is_closed_costs_no_training(trained, tmp_path):
    """Its stdout and stderr are gone then, so that nothing can be said of it."""
    terminal, end_of_process = os.openpty()
    args = [*trained.args, f'--out_dir={tmp_path}', '--max_epochs=1000']
    ends = {'stdin': end_of_process, 'stdout': end_of_process, 'stderr': end_of_process}
    process = start('train.py', *args, start_new_session=True, **ends)
    os.close(end_of_process)
    reader = threading.Thread(target=read_all, args=(terminal,), daemon=True)
    reader.start()
    wait_for_iter(40, process, tmp_path)
    process.send_signal(signal.SIGHUP)
    os.close(terminal)
    assert process.wait(60 * SLOW) in (128 + signal.SIGHUP, 128 + signal.SIGTERM)
    assert read_checkpoint(tmp_path / 'last.pt')['run']['iter'] >= 40


def read_all(fd):
    """Reads what a process prints on a terminal, until that is closed."""
    with contextlib.suppress(OSError):
        while os.read(fd, 1000):
            pass


@pytest.mark.skipif(os.name == 'nt', reason='a reader that goes away is seen by SIGPIPE and EPIPE')
def test_both_outputs_may_go_away(trained, tmp_path):
    """`python train.py ... 2>&1 | head` ended in a traceback that nobody saw, and saved nothing."""
    args = [*trained.args, f'--out_dir={tmp_path}', '--max_epochs=1000']
    process = start('train.py', *args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60 * SLOW) == 128 + signal.SIGTERM
    assert read_checkpoint(tmp_path / 'last.pt')['run']['iter'] > 0


def test_a_finished_run_without_validation_goes_on(tiny, run_here, tmp_path):
    """It has a best checkpoint, the last one, and no score by which that was chosen."""
    args = [*tiny, f'--out_dir={tmp_path}', '--val_fraction=0', '--max_epochs=1']
    run_here('train.py', *args)
    flags = [f'--out_dir={tmp_path}', '--init_from=resume', '--max_epochs=2']
    assert run_here('train.py', *flags).last['best']['epoch'] == 2


# -----------------------------------------------------------------------------
# settings of a resumed run


def test_a_resumed_run_keeps_its_settings(trained, run_here):
    """Another batch size would make another run of it, and the log would not say so."""
    flags = [f'--out_dir={trained.out_dir}', '--init_from=resume']
    result = run_here('train.py', *flags, '--batch_size=4', status=2)
    assert 'batch_size=8, not 4' in result.err
    # the settings of prepare.py, too
    result = run_here('train.py', *flags, '--keep=first', status=2)
    assert 'keep=last, not first' in result.err


def test_what_is_typed_counts_even_if_it_is_the_default(trained, run_here, tmp_path):
    """A run that patience=1 has ended can go on with --patience=0, although 0 is the default."""
    last = copy_run(trained, tmp_path / 'run')
    last['settings'] |= dict(patience=1, max_epochs=3)
    last['run']['bad_evals'] = 1
    torch.save(last, tmp_path / 'run/last.pt')
    flags = [f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_epochs=4']

    assert run_here('train.py', *flags).last['stopped'] == 'early'
    assert run_here('train.py', *flags, '--patience=0').last['stopped'] == 'max'
    # and a default that is typed is refused where another value cannot be
    result = run_here('train.py', *flags, '--batch_size=16', status=2)
    assert 'batch_size=8, not 16' in result.err


def test_a_checkpoint_of_another_version_is_not_resumed(trained, run_here, tmp_path):
    """Its optimizer may have other parameter groups, which would end in a traceback."""
    last = read_checkpoint(f'{trained.out_dir}/last.pt')
    del last['settings']['head_epochs']
    torch.save(last, tmp_path / 'last.pt')
    result = run_here('train.py', f'--out_dir={tmp_path}', '--init_from=resume', status=2)
    assert 'another version' in result.err
    assert set(os.listdir(tmp_path)) == {'last.pt', '.lock'}


def test_a_damaged_checkpoint_is_not_resumed(run_here, tmp_path):
    (tmp_path / 'last.pt').write_bytes(b'not a checkpoint')
    result = run_here('train.py', f'--out_dir={tmp_path}', '--init_from=resume', status=2)
    assert 'last.pt cannot be opened' in result.err
    assert result.err.count('\n') == 1


def test_other_data_is_not_trained_on(trained, run_here, tmp_path):
    """The raw file was changed: the same settings would now mean another run."""
    last = copy_run(trained, tmp_path / 'run')
    last['recipe']['raw']['train'] = '0' * 64
    torch.save(last, tmp_path / 'run/last.pt')
    flags = [f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_epochs=7']
    result = run_here('train.py', *flags, status=2)
    assert 'was trained on other data' in result.err


# -----------------------------------------------------------------------------
# other beginnings


def test_a_moved_run_goes_on_where_it_lies(trained, run_here, tmp_path, monkeypatch):
    """Its checkpoint names the old folder, in which another run may lie by now."""
    copy_run(trained, tmp_path / 'out' / 'run')  # the default of out_dir
    before = times_of_files(trained.out_dir)
    monkeypatch.chdir(tmp_path)
    result = run_here('train.py', '--init_from=resume', '--max_epochs=7')
    assert result.last['run'] == 'out/run'
    assert read_log('out/run')[-1]['iter'] == 7 * 27
    assert times_of_files(trained.out_dir) == before


def test_a_run_whose_data_was_moved_goes_on(trained, run_here, tmp_path):
    """Another machine has other paths. The files are known by their checksums."""
    last = copy_run(trained, tmp_path / 'run')
    flags = []
    for setting in ('dataset', 'test_file'):
        moved = tmp_path / f'moved {setting}.csv'
        shutil.copy(last['settings'][setting], moved)
        flags.append(f'--{setting}={moved}')
        last['settings'][setting] = f'/gone/{setting}.csv'
    torch.save(last, tmp_path / 'run/last.pt')

    flags += [f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_epochs=7']
    run_here('train.py', *flags)
    assert read_log(tmp_path / 'run')[-1]['iter'] == 7 * 27


def test_a_run_without_an_evaluation_has_no_test_score(trained, run_here, tmp_path):
    """A best.pt that lies there belongs to an older run."""
    last = copy_run(trained, tmp_path / 'run')
    last['run'] |= dict(iter=9, best=None, best_score=None, bad_evals=0)
    torch.save(last, tmp_path / 'run/last.pt')
    flags = [f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_iters=5']
    last = run_here('train.py', *flags).last
    assert last['stopped'] == 'max'
    assert last['best'] is None
    assert last['test'] is None
