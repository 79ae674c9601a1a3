"""What the tests share: a tiny data set, and the scripts as a user runs them."""

import csv
import gc
import json
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest

# before torch is imported: with pytest-xdist there is a process for each core already
os.environ.setdefault('OMP_NUM_THREADS', '1')

from nanosentiment.repeats import stop_signals  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY = (
    '--n_layer=2 --n_head=2 --n_embd=16 --block_size=32 --tokenizer=bpe300 '
    '--batch_size=8 --dropout=0.1 --warmup_iters=5'
)

# -----------------------------------------------------------------------------
# time limits


def slowness():
    """What to multiply time limits by: 1, but more on a machine whose time others take."""
    begin = time.perf_counter()
    last = begin
    lost = 0.0
    while last < begin + 0.5:
        # reading the clock takes no time, so a gap between two readings was somebody else's
        now = time.perf_counter()
        if now - last > 0.001:
            lost += now - last
        last = now
    share = 1 - lost / (last - begin)
    if share > 0.7:
        return 1.0
    return 3 / max(share, 0.1)  # threefold, because the load comes and goes


SLOW = slowness()


def in_time(seconds, limit):
    """Asserts that something took less than a limit, but only where the machine is our own."""
    if seconds >= limit and SLOW > 1:
        pytest.skip(f'{seconds:.1f} s, allowed are {limit}, but this machine is busy: not judged')
    assert seconds < limit


# -----------------------------------------------------------------------------
# data


def write_rows(path, n, seed=0):
    """n rows of id, mood and body: two labels that a few words give away, and a rare third."""
    rng = random.Random(seed)
    cues = {
        'good': ['lovely', 'great', 'thanks'],
        'bad': ['broken', 'late', 'awful'],
        'odd': ['banana', 'purple', 'moon'],
    }
    filler = 'the parcel came on a day and it was in this box for you and me'
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['id', 'mood', 'body'])
        for i in range(n):
            if i % 10 == 9:
                mood = 'odd'
            elif i % 2 == 0:
                mood = 'good'
            else:
                mood = 'bad'
            n_words = rng.randint(3, 20)
            words = rng.choices(filler.split(), k=n_words)
            words += rng.choices(cues[mood], k=2)
            rng.shuffle(words)
            writer.writerow([i, mood, ' '.join(words)])


# -----------------------------------------------------------------------------
# the scripts, in processes of their own


def python_command(script, *args):
    """A script of this project, or a list of arguments for Python itself -> the whole command."""
    if not isinstance(script, list):
        script = [os.path.join(ROOT, script)]
    return [sys.executable, *script, *args]


def environment(changes=None):
    """One thread and no GPU, because other threads compute other last bits."""
    fixed = {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    return {**os.environ, **fixed, **(changes or {})}


def result_of(out, err):
    """.out and .err, and .last: the JSON object in the last line of stdout, or None."""
    last_line = out.strip().rpartition('\n')[2]
    last = json.loads(last_line) if last_line.startswith('{') else None
    return SimpleNamespace(out=out, err=err, last=last)


def check_message(err):
    """
    The last line of stderr says what is wrong and, behind a semicolon, what to do: with exit status
    2, whatever the cause. It has at most 400 characters, the folders of the tests aside.
    """
    assert 'Traceback' not in err, err
    line = err.rstrip('\n').rpartition('\n')[2]
    short_line = re.sub(rf'{re.escape(tempfile.gettempdir())}/\S*/', '', line)
    assert len(short_line) <= 400, f'{len(short_line)} characters: {short_line}'
    assert ';' in line, f'no remedy: {line}'


def run(script, *args, env=None, status=0, timeout=120 * SLOW, **more):
    """
    Runs a script in a process of its own and returns what it printed, see result_of, and .status.

    status is the exit status that is expected; None accepts any. more goes to subprocess.run.
    """
    process = subprocess.run(
        python_command(script, *args),
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=timeout,
        **{'stdin': subprocess.DEVNULL} | more,
    )
    assert status is None or process.returncode == status, process.stdout + process.stderr
    if process.returncode == 2:
        check_message(process.stderr)
    result = result_of(process.stdout, process.stderr)
    result.status = process.returncode
    return result


def start(script, *args, **more):
    """Starts a script and returns its process. Its stdout is thrown away unless more says else."""
    command = python_command(script, *args)
    return subprocess.Popen(command, env=environment(), **{'stdout': subprocess.DEVNULL} | more)


# -----------------------------------------------------------------------------
# the scripts, in this process


@pytest.fixture
def run_here(monkeypatch, capsys):
    """
    run_here(script, *args, status=0) is `run` without a process of its own.

    It saves the two seconds in which torch is imported, and what a test has patched is in force.
    """

    def run_script(script, *args, status=0):
        path = os.path.join(ROOT, script)
        monkeypatch.setattr(sys, 'argv', [path, *args])
        handlers = {number: signal.getsignal(number) for number in stop_signals()}
        code = 0
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as error:
            code = error.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            gc.collect()  # closes the files that the script had open
        out, err = capsys.readouterr()
        assert code == status, out + err
        if code == 2:
            check_message(err)
        return result_of(out, err)

    return run_script


# -----------------------------------------------------------------------------
# runs


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """Arguments of train.py that train a tiny model in two seconds; out_dir is left open."""
    folder = tmp_path_factory.mktemp('tiny')
    write_rows(folder / 'rows.csv', 240)
    write_rows(folder / 'test.csv', 60, seed=1)
    data = f'--dataset={folder}/rows.csv --test_file={folder}/test.csv --data_dir={folder}/data'
    columns = '--text_column=body --label_column=mood'
    training = '--learning_rate=3e-3 --max_epochs=6 --device=cpu --dtype=float32'
    return f'{data} {columns} {TINY} {training}'.split()


@pytest.fixture(scope='session')
def trained(tiny, tmp_path_factory):
    """One finished run, for the tests that only look: .out_dir, .result and .args (as tiny)."""
    out_dir = str(tmp_path_factory.mktemp('trained') / 'run')
    objective = ['--class_weight=sqrt', '--lm_weight=0.1']
    result = run('train.py', *tiny, f'--out_dir={out_dir}', *objective)
    return SimpleNamespace(out_dir=out_dir, result=result, args=tiny)


def read_log(out_dir):
    """The lines of a run's metrics.jsonl."""
    with open(os.path.join(out_dir, 'metrics.jsonl'), encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def read_checkpoint(path):
    """A .pt file -> dict. weights_only refuses anything but tensors and plain values."""
    import torch

    return torch.load(path, weights_only=True)


def redraw_weights(model):
    """
    Every weight from N(0, 0.3), so that each of them counts; the weights of norms near 1, else
    little of a text is left behind several of them.
    """
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight += 1


def assert_same_weights(path, other_path):
    """The weights in two checkpoints are the same to the last bit."""
    weights = read_checkpoint(path)['model']
    other_weights = read_checkpoint(other_path)['model']
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        assert weight.equal(other_weights[name]), name
