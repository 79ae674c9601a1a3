# what several test files share: a tiny corpus with something to learn, and the scripts as a user runs them

import csv
import json
import os
import random
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is there: pytest-xdist already has a process for each core
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY = '--n_layer=2 --n_head=2 --n_embd=16 --block_size=32 --tokenizer=bpe300 --batch_size=8 --dropout=0.1 --warmup_iters=5'


def slowness():
    """What to multiply patience by: 1 on a machine of one's own, more on one that others take away meanwhile."""
    begin = last = time.perf_counter()
    lost = 0.0
    while last < begin + 0.5:  # nothing but reading the clock: what is missing in between went elsewhere
        now = time.perf_counter()
        lost, last = lost + (now - last if now - last > 0.001 else 0), now
    share = 1 - lost / (last - begin)
    return 1.0 if share > 0.7 else 3 / max(share, 0.1)  # threefold, because it comes and goes


SLOW = slowness()


def in_time(seconds, limit):
    """A limit is meant for a machine of one's own: on one that stalls, exceeding it is no verdict, and that is said."""
    if seconds >= limit and SLOW > 1:
        pytest.skip(f'{seconds:.1f} s where {limit} are allowed, but this machine stalls: not judged')
    assert seconds < limit


def write_rows(path, n, seed=0):
    """n rows of mood and body: two labels that a few words give away, and a rare third."""
    rng = random.Random(seed)
    cues = {'good': ['lovely', 'great', 'thanks'], 'bad': ['broken', 'late', 'awful'], 'odd': ['banana', 'purple', 'moon']}
    filler = 'the parcel came on a day and it was in this box for you and me'.split()
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['id', 'mood', 'body'])
        for i in range(n):
            mood = 'odd' if i % 10 == 9 else ('good', 'bad')[i % 2]
            words = rng.choices(filler, k=rng.randint(3, 20)) + rng.choices(cues[mood], k=2)
            rng.shuffle(words)
            writer.writerow([i, mood, ' '.join(words)])


def run(script, *args, env=None, status=0, timeout=120 * SLOW, **more):
    """A script of this project in a process of its own -> its result, with .last, the JSON of its last line, if any."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **(env or {})}
    command = [sys.executable, *(script if isinstance(script, list) else [os.path.join(ROOT, script)]), *args]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=timeout, **{'stdin': subprocess.DEVNULL} | more
    )
    assert status is None or done.returncode == status, done.stdout + done.stderr
    last = done.stdout.strip().rpartition('\n')[2]
    return SimpleNamespace(out=done.stdout, err=done.stderr, last=json.loads(last) if last.startswith('{') else None)


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """Arguments that train a tiny model on tiny data in two seconds, out_dir left open."""
    folder = tmp_path_factory.mktemp('tiny')
    write_rows(folder / 'rows.csv', 240)
    write_rows(folder / 'test.csv', 60, seed=1)
    data = f'--dataset={folder}/rows.csv --test_file={folder}/test.csv --data_dir={folder}/data'
    args = (
        f'{data} --text_column=body --label_column=mood {TINY} --learning_rate=3e-3 --max_epochs=6 --device=cpu --dtype=float32'
    )
    return args.split()


@pytest.fixture(scope='session')
def trained(tiny, tmp_path_factory):
    """One finished run, for the tests that only look."""
    out_dir = str(tmp_path_factory.mktemp('trained') / 'run')
    result = run('train.py', *tiny, f'--out_dir={out_dir}', '--class_weight=sqrt', '--lm_weight=0.1')
    return SimpleNamespace(out_dir=out_dir, result=result, args=tiny)
