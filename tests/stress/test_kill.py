"""
A training that is killed with kill -9 again and again, at random moments, with a save every few
steps: it ends as if nothing had happened. And with another number of processes after each kill: no
row is lost or read twice, and it ends.

$ KILLS=1000 python -m pytest -m stress tests/stress/test_kill.py
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, assert_same_weights, environment, read_log, run, start, write_rows

from nanosentiment.files import lock_folder

pytestmark = pytest.mark.stress
KILLS = int(os.getenv('KILLS', '20'))
KILLS_OF_A_RUN = 10  # then it is left alone, and compared


@pytest.fixture(scope='module')
def flags(tmp_path_factory):
    """Arguments of a training of 120 steps that saves every three, out_dir left open."""
    folder = tmp_path_factory.mktemp('kill')
    write_rows(folder / 'rows.csv', 160)
    args = [
        *(f'--dataset={folder}/rows.csv', f'--data_dir={folder}/data', '--text_column=body'),
        *('--label_column=mood', '--n_layer=2', '--n_head=2', '--n_embd=16', '--block_size=32'),
        *('--tokenizer=bpe300', '--device=cpu', '--dtype=float32', '--batch_size=4'),
        *('--max_epochs=0', '--max_iters=120', '--eval_interval=3', '--log_interval=1'),
        *('--gradient_accumulation_steps=2', '--dropout=0.1'),
    ]
    run('train.py', *args, '--max_iters=1', f'--out_dir={folder}/first')  # prepares the data
    return args


def kill_after(seconds, process, out_dir):
    """Kills a process some time after it has begun to train. Returns whether it was in time."""
    log_path = out_dir / 'metrics.jsonl'
    before = log_path.stat().st_mtime_ns if log_path.exists() else 0
    while process.poll() is None:
        if log_path.exists() and log_path.stat().st_mtime_ns != before:
            break
        time.sleep(0.005)
    time.sleep(seconds)
    was_in_time = process.poll() is None
    process.kill()
    process.wait()
    return was_in_time


def kill_owner(out_dir):
    """Kills the process that holds the lock: those that torchrun has started outlive it."""
    while True:
        try:
            lock_folder(out_dir).close()
            return
        except ValueError as error:  # ... is in use by process 123 on ...
            owner = re.search(r'by process (\d+)', str(error))
        if owner:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(owner[1]), signal.SIGKILL)
        time.sleep(0.01)


def test_kills_change_nothing(flags, tmp_path):
    """Weights and log are those of a run that nobody disturbed, to the last bit."""
    whole = tmp_path / 'whole'
    run('train.py', *flags, f'--out_dir={whole}')
    rng = random.Random(0)
    n_kills = 0
    while n_kills < KILLS:
        out_dir = tmp_path / f'killed {n_kills}'
        resume = []
        for _ in range(KILLS_OF_A_RUN):
            process = start('train.py', *flags, f'--out_dir={out_dir}', *resume)
            if not kill_after(rng.uniform(0, 0.3), process, out_dir):
                break
            n_kills += 1
            resume = ['--init_from=resume']
        run('train.py', *flags, f'--out_dir={out_dir}', *resume)
        assert_same_weights(whole / 'best.pt', out_dir / 'best.pt')
        assert_same_weights(whole / 'last.pt', out_dir / 'last.pt')
        assert read_log(out_dir) == read_log(whole)
        assert not list(out_dir.glob('last.pt.*.tmp'))


def start_ranks(n_ranks, *args):
    """Starts a training of so many processes, by torchrun if there are two. Nothing is shown."""
    command = [sys.executable, f'{ROOT}/train.py', *args]
    if n_ranks > 1:
        torchrun = ['-m', 'torch.distributed.run', '--standalone']
        command[1:1] = [*torchrun, f'--nproc_per_node={n_ranks}']
    silent = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment(), start_new_session=True, **silent)


def test_the_number_of_processes_may_change_at_each_kill(flags, tmp_path):
    """Each step is in the log once, in order, as a run of one process would have it."""
    rng = random.Random(0)
    n_kills = 0
    while n_kills < max(KILLS // 5, 4):
        out_dir = tmp_path / f'killed {n_kills}'
        resume = []
        for _ in range(4):  # after more of them most kills would come when all steps are done
            n_ranks = rng.choice((1, 2))
            process = start_ranks(n_ranks, *flags, f'--out_dir={out_dir}', *resume)
            was_in_time = kill_after(rng.uniform(0, 0.3), process, out_dir)
            kill_owner(out_dir)  # torchrun's processes outlive it
            if not was_in_time:
                break
            n_kills += 1
            resume = ['--init_from=resume']
        run('train.py', *flags, f'--out_dir={out_dir}', *resume)
        steps = [line['iter'] for line in read_log(out_dir) if 'lr' in line]
        assert steps == list(range(1, 121))
