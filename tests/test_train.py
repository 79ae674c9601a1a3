# python -m pytest tests/test_train.py
# the training script as a user runs it: learning, stopping, being killed, going on, and being told nonsense

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, SLOW, in_time, run, write_rows

import train
from batches import Recorded, epoch_batches, pad
from metrics import imbalance
from model import Config
from train import get_lr


def log_of(out_dir):
    with open(os.path.join(out_dir, 'metrics.jsonl'), encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def weights_of(path):
    return torch.load(path, weights_only=True)['model']


def assert_same_weights(a, b):
    a, b = weights_of(a), weights_of(b)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def kill_after(args, out_dir, iters):
    """train.py with kill -9 as soon as it has written last.pt and logged so many iterations."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}  # as run has it: other threads, other last bits
    process = subprocess.Popen([sys.executable, f'{ROOT}/train.py', *args], env=env, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if os.path.exists(out_dir / 'last.pt') and (
            not iters or f'"iter": {iters},' in (out_dir / 'metrics.jsonl').read_text()
        ):
            process.kill()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL, 'it ended by itself'


def toy_split(n):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, n)
    labels = (rng.random(n) < 0.1).astype(np.uint16)
    return type('Toy', (), {'labels': labels, 'off': np.concatenate([[0], np.cumsum(lengths)]), '__len__': lambda self: n})()


@pytest.mark.parametrize('n, size', [(1, 4), (37, 4), (1000, 8), (5000, 3)])
def test_an_epoch_shows_every_text_once(n, size):
    """Random windows (nanoGPT's way) show some texts thrice and some never; the last short step must not be dropped."""
    split = toy_split(n)
    steps = list(epoch_batches(split, size, seed=1, epoch=2))
    assert sorted(np.concatenate(steps).tolist()) == list(range(n)) and len(steps) == math.ceil(n / size)


def test_the_order_follows_from_seed_and_epoch():
    """Else a resumed run would see other batches than an uninterrupted one."""
    split, orders = toy_split(300), []
    for seed, epoch in [(1, 0), (1, 0), (1, 1), (2, 0)]:
        orders.append(np.concatenate(list(epoch_batches(split, 8, seed, epoch))).tolist())
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) == 3


def test_buckets_save_padding_and_still_mix():
    """Batches of like length, but not the same companions every epoch, not even in a small data set."""
    split = toy_split(800)
    lengths = np.diff(split.off)

    def padded(steps):
        return sum(len(rows) * lengths[rows].max() for rows in steps) / lengths.sum()

    epochs = [list(epoch_batches(split, 8, 1, epoch)) for epoch in (0, 1)]
    at_random = np.array_split(np.random.default_rng(0).permutation(800), 100)
    assert padded(epochs[0]) < 1.15 < 1.5 < padded(at_random)
    together = [{(a, b) for rows in steps for a in rows for b in rows if a < b} for steps in epochs]
    assert len(together[0] & together[1]) < 0.2 * len(together[0])


def test_balanced_sampling_draws_labels_evenly():
    split = toy_split(2000)
    rows = np.concatenate(list(epoch_batches(split, 8, 1, 0, even=True)))
    assert len(rows) == 2000 and 0.45 < split.labels[rows].mean() < 0.55 < 1 - split.labels.mean()


def test_learning_rate_warms_up_and_comes_down():
    for decay in ('cosine', 'linear'):
        rates = [get_lr(it, 1.0, 10, decay, 110, 0.1) for it in range(120)]
        assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0 and rates[60] == pytest.approx(0.55)
        assert rates[110] == rates[119] == pytest.approx(0.1) and sorted(rates[10:], reverse=True) == rates[10:]
    assert get_lr(60, 1.0, 0, 'none', 110, 0.1) == 1.0


def test_class_weights_average_one_over_the_texts():
    """Weights of another size would silently change the learning rate."""
    counts = np.array([542, 411, 17])
    for how, ratio in [('balanced', 542 / 17), ('sqrt', (542 / 17) ** 0.5)]:
        weight, prior = imbalance(counts, how)
        assert prior is None and (weight * torch.tensor(counts)).sum() / 970 == pytest.approx(1)
        assert weight[2] / weight[0] == pytest.approx(ratio)
    assert imbalance(counts, 'none') == (None, None)
    assert imbalance(counts, 'logit')[1].exp().sum() == pytest.approx(1)


def test_a_run_learns_and_reports(trained):
    """From a CSV to a number: the words give the labels away, so a model that reads must find them all."""
    last = trained.result.last
    assert last['test']['accuracy'] > 0.9 and min(last['test']['recall'].values()) > 0.5, trained.result.out
    keys = 'run dataset tokenizer n_params n_train n_val n_test best test train_examples_per_s seconds stopped'
    assert list(last) == [*keys.split(), 'seed', 'fold', 'command'] and (last['n_train'], last['n_val'], last['n_test']) == (
        216,
        24,
        60,
    )
    assert set(last['best']) == {'iter', 'epoch', 'val_loss', 'val_accuracy', 'val_macro_f1'} and last['stopped'] == 'max'
    assert {'accuracy', 'accuracy_ci', 'macro_f1', 'recall'} == set(last['test'])
    losses = [x['train_loss'] for x in log_of(trained.out_dir) if 'train_loss' in x]
    assert len(losses) == 6 and losses[-1] < 0.5 * losses[0]
    for label in ('good', 'bad', 'odd'):  # the table for people
        assert re.search(rf'^{label} +[0-9.]+ +[0-9.]+ +[0-9.]+ +\d+', trained.result.out, re.M)


def test_best_is_the_best_and_last_the_last(trained):
    """nanoGPT may overwrite its best checkpoint with a worse one."""
    evaluations = [x for x in log_of(trained.out_dir) if 'val_loss' in x]
    best = max(evaluations, key=lambda x: (x['val_macro_f1'], -x['val_loss']))  # the labels are unbalanced
    saved = torch.load(f'{trained.out_dir}/best.pt', weights_only=True)
    last = torch.load(f'{trained.out_dir}/last.pt', weights_only=True)
    assert saved['metrics']['nll'] == best['val_loss'] and trained.result.last['best']['iter'] == best['iter']
    assert last['run']['iter'] == evaluations[-1]['iter'] == 6 * 27 and 'optimizers' in last and 'optimizers' not in saved


def test_best_may_hear_each_label_alike(trained, tmp_path):
    """Three rare texts make macro-F1 a coin toss, and the plain loss hardly hears them."""
    args = ['--class_weight=sqrt', '--lm_weight=0.1', '--metric=val_balanced_loss']
    best = run('train.py', *trained.args, *args, f'--out_dir={tmp_path}').last['best']
    evaluations = [x for x in log_of(tmp_path) if 'val_loss' in x]
    assert evaluations == [x for x in log_of(trained.out_dir) if 'val_loss' in x]  # it chooses, it does not train
    assert best['iter'] == min(evaluations, key=lambda x: x['val_balanced_loss'])['iter']
    assert torch.load(tmp_path / 'best.pt', weights_only=True)['metrics']['nll'] == best['val_loss']


def test_a_checkpoint_says_where_it_comes_from(trained):
    saved = torch.load(f'{trained.out_dir}/best.pt', weights_only=True)  # refuses anything but tensors and plain values
    assert {'model', 'config', 'settings', 'labels', 'dataset', 'tokenizer', 'recipe', 'metrics', 'versions', 'git'} <= set(
        saved
    )
    assert saved['labels'] == ['bad', 'good', 'odd'] and saved['versions']['torch'] == str(torch.__version__)
    assert saved['settings']['learning_rate'] == 3e-3 and saved['dataset'] == 'rows'


@pytest.mark.parametrize('after', [0, 60, 130])
def test_killed_and_resumed_equals_uninterrupted(trained, tmp_path, after):
    """Kill -9 at any moment costs time, nothing else: the same weights to the last bit, and the same log."""
    args = [*trained.args, f'--out_dir={tmp_path}', '--class_weight=sqrt', '--lm_weight=0.1']
    kill_after(args, tmp_path, after)
    resumed = run('train.py', *args, '--init_from=resume')
    for name in ('best.pt', 'last.pt'):
        assert_same_weights(f'{trained.out_dir}/{name}', tmp_path / name)
    assert log_of(tmp_path) == log_of(trained.out_dir) and resumed.last['test'] == trained.result.last['test']


def test_killed_again_as_soon_as_it_goes_on(trained, tmp_path):
    """What was logged before is on the disk when the new log takes the old one's place, not in some buffer."""
    args, log = [*trained.args, f'--out_dir={tmp_path}'], tmp_path / 'metrics.jsonl'
    kill_after(args, tmp_path, 60)
    saved, old = torch.load(tmp_path / 'last.pt', weights_only=True)['run']['iter'], os.stat(log).st_ino
    kept = [x for x in log_of(tmp_path) if x['iter'] <= saved]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, f'{ROOT}/train.py', *args, '--init_from=resume', '--log_interval=1000']
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if os.stat(log).st_ino != old:
            process.kill()
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL and saved == 54
    assert kept and log_of(tmp_path)[: len(kept)] == kept


def test_a_run_without_an_evaluation_has_no_test(trained, tmp_path):
    """A best.pt that lies there is of an older run, and its score no other's."""
    shutil.copytree(trained.out_dir, tmp_path / 'run')
    last = torch.load(tmp_path / 'run/last.pt', weights_only=True)
    last['run'] |= dict(iter=9, best=None, bad_evals=0)
    torch.save(last, tmp_path / 'run/last.pt')
    found = run('train.py', f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_iters=5').last
    assert found['best'] is None and found['test'] is None and found['stopped'] == 'max'


def test_an_adversary_makes_the_loss_of_the_very_first_step_grow(trained, tmp_path):
    """By as much as a text's embeddings may move; in the other direction it would shrink, and training learn less."""
    losses = []
    for size in (0, 0.01, 0.02, 0.2):
        flags = f'--adversarial={size} --max_iters=1 --log_interval=1 --out_dir={tmp_path}/{size}'
        run('train.py', *trained.args, *flags.split())
        losses.append(log_of(tmp_path / str(size))[0]['loss'])
    growth = [loss - losses[0] for loss in losses[1:]]
    assert 0 < growth[0] < growth[1] < growth[2] and growth[1] == pytest.approx(2 * growth[0], rel=0.1), growth


def test_rows_that_rest_are_resumed_too(trained, tmp_path):
    """With sparse_rows there is a second optimizer, whose moments must come back with its embedding."""
    args = [*trained.args, '--sparse_rows=True', '--max_epochs=4']
    run('train.py', *args, f'--out_dir={tmp_path}/whole')
    kill_after([*args, f'--out_dir={tmp_path}/killed'], tmp_path / 'killed', 60)
    run('train.py', *args, f'--out_dir={tmp_path}/killed', '--init_from=resume')
    assert_same_weights(tmp_path / 'whole/last.pt', tmp_path / 'killed/last.pt')
    assert log_of(tmp_path / 'whole') == log_of(tmp_path / 'killed')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_says_how_to_go_on_and_loses_nothing(trained, tmp_path, number):
    """The machine is wanted back: finish the step, write last.pt, exit 0; the words it prints must work as they are."""
    args = [*trained.args, '--out_dir=my runs/1', '--class_weight=sqrt', '--lm_weight=0.1']
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(
        [sys.executable, f'{ROOT}/train.py', *args], env=env, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    for line in process.stdout:
        if line.startswith('iter 30/'):
            process.send_signal(number)
            break
    out = process.communicate(timeout=60 * SLOW)[0]
    assert process.returncode == 0 and json.loads(out.strip().rpartition('\n')[2])['stopped'] == 'signal'
    saved = torch.load(tmp_path / 'my runs/1/last.pt', weights_only=True)
    assert 30 <= saved['run']['iter'] < 162
    assert shlex.split(saved['command'])[2:] == args, 'what made it, to be typed again'
    command = re.search(r'to go on: python train.py (.*)', out)[1]
    resumed = run('train.py', *shlex.split(command), cwd=tmp_path).last
    assert resumed['test'] == trained.result.last['test'] and resumed['stopped'] == 'max'
    assert_same_weights(f'{trained.out_dir}/best.pt', tmp_path / 'my runs/1/best.pt')


def test_patience_stops_early(trained, tmp_path):
    """With a learning rate of nothing no evaluation improves on the first."""
    args = ['--patience=2', '--learning_rate=0', '--max_epochs=50']
    last = run('train.py', *trained.args, *args, f'--out_dir={tmp_path}').last
    assert last['stopped'] == 'early' and last['best']['iter'] == 27
    assert [x['iter'] for x in log_of(tmp_path) if 'val_loss' in x] == [27, 54, 81]


def test_a_loss_that_is_no_number_stops_the_run(trained, tmp_path):
    """One line with the iteration and the remedy, and the checkpoint of before."""
    result = run('train.py', *trained.args, '--learning_rate=1e20', '--grad_clip=0', f'--out_dir={tmp_path}', status=2)
    assert re.search(r'loss is (nan|inf).* at iter \d+; lower learning_rate', result.err) and 'Traceback' not in result.err
    assert all(p.isfinite().all() for p in weights_of(tmp_path / 'last.pt').values())


@pytest.mark.parametrize(
    'more', ['--lm_weight=0.1', '--sparse_rows=True', '--adversarial=0.1 --head_epochs=1', '--gradient_accumulation_steps=4']
)
def test_two_processes_train_as_one(trained, tmp_path, more):
    """The same global batch in two halves: the same loss curve, the class weights and the short last step included."""
    args = [*trained.args, '--class_weight=balanced', '--gradient_accumulation_steps=2', *more.split()]
    args += ['--batch_size=7', '--max_epochs=2', '--log_interval=1']  # 216 rows: the last step has 6 for two of 7, or 20 for 4
    one = run('train.py', *args, f'--out_dir={tmp_path}/one').last
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', f'{ROOT}/train.py']
    two = run(launcher, *args, f'--out_dir={tmp_path}/two').last
    a, b = log_of(f'{tmp_path}/one'), log_of(f'{tmp_path}/two')
    assert len(a) == len(b) == (16 if '=4' in more else 32) + 2
    for x, y in zip(a, b):
        assert y == pytest.approx(x, abs=1e-5)
    assert two['test']['accuracy'] == one['test']['accuracy']


@pytest.mark.parametrize('how', ['balanced', 'sampling', 'logit'])
def test_every_remedy_for_imbalance_finds_the_rare_label(trained, tmp_path, how):
    last = run('train.py', *trained.args, f'--class_weight={how}', '--max_epochs=12', f'--out_dir={tmp_path}').last
    assert last['test']['recall']['odd'] > 0.5 and last['test']['accuracy'] > 0.8


def wandb_records(path):
    """A .wandb file -> its records' bytes: LevelDB's log format (blocks of 32 KiB, 7-byte heads) after a head of 7 bytes."""
    data, at, record = path.read_bytes(), 7, b''
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no room for a head: the block is filled up
            at += 32768 - at % 32768
        size, kind = int.from_bytes(data[at + 4 : at + 6], 'little'), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b''


def test_wandb_keeps_the_history_without_a_network(trained, tmp_path):
    """The real package, offline: what would be uploaded must hold every evaluation."""
    from wandb.proto.wandb_internal_pb2 import Record

    env = {'WANDB_MODE': 'offline', 'WANDB_SILENT': 'true', 'HOME': str(tmp_path)}
    run('train.py', *trained.args, '--wandb_log=True', '--max_epochs=2', f'--out_dir={tmp_path}/run', env=env)
    (path,) = (tmp_path / 'run/wandb').glob('offline-run-*/run-*.wandb')
    items = [item for data in wandb_records(path) for item in Record.FromString(data).history.item]
    found = [json.loads(item.value_json) for item in items if 'val_loss' in (item.key, *item.nested_key)]
    logged = [x['val_loss'] for x in log_of(tmp_path / 'run') if 'val_loss' in x]
    assert found == logged and len(logged) == 2
    keys = {key for item in items for key in (item.key, *item.nested_key)}
    assert 'errors' in keys and any('confusion' in key for key in keys), keys


def test_without_its_dataset_the_first_command_goes_on_with_the_demo(tmp_path):
    """Nobody may mistake the demo's figures for the dataset's: its name stands in every output and in the checkpoint."""
    env = {'https_proxy': 'http://127.0.0.1:9', 'HTTPS_PROXY': 'http://127.0.0.1:9', 'NANOSENTIMENT_RAW': ''}
    args = ['config/train_sentiment_scratch.py', '--max_iters=2', f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/run']
    started = time.perf_counter()
    result = run('train.py', *args, '--n_layer=1', '--n_embd=16', '--n_head=1', env=env)
    seconds = time.perf_counter() - started
    assert '#' * 100 in result.err and 'GOING ON WITH DEMO' in result.err and 'customer_service' in result.err
    assert result.last['dataset'] == 'demo' and 'dataset demo' in result.out and 'demo, test:' in result.out
    assert torch.load(tmp_path / 'run/best.pt', weights_only=True)['dataset'] == 'demo'
    without = run('train.py', *args, '--fallback_dataset=', env=env, status=2)
    assert without.err.strip().count('\n') <= 1 and 'NANOSENTIMENT_RAW' in without.err
    in_time(seconds, 60)


MISTAKES = {
    '--class_weight=heavy': 'balanced',
    '--n_head=3': 'n_embd 16',
    '--batch_size=0': 'batch_size=0',
    '--gradient_accumulation_steps=0': 'positive multiple',
    '--dropout=1.5': 'below 1',
    '--max_epochs=0': 'both 0',
    '--dataset=nowhere.csv': 'nowhere.csv',
    '--label_column=smell': 'id, mood, body',
    '--init_from=resume': 'last.pt',
    '--tokenizer=char': 'bpe<N>',
    '--max_iter=3': 'max_iters',
    '--device=cuda': '--device=cpu',
    '--init_from=gpt5': 'none of scratch, resume, gpt2',
    '--keep_layers=2': 'from scratch set n_layer',
    '--head_lr=0.1 --learning_rate=0': 'a learning_rate',
    '--sparse_rows=True --learning_rate=0': 'a learning_rate',
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_costs_one_line(trained, tmp_path, mistake):
    """What, where, remedy; exit status 2; no traceback, and nothing written over."""
    result = run('train.py', *trained.args, f'--out_dir={tmp_path}/run', *mistake.split(), status=2)
    lines = [line for line in result.err.splitlines() if not line.startswith('preparing')]
    assert len(lines) == 1 and MISTAKES[mistake] in lines[0], result.err
    assert not os.path.exists(tmp_path / 'run/last.pt')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='/dev/full, a disk that is always full, is Linux')
def test_a_full_disk_costs_one_line_and_no_checkpoint(trained, tmp_path):
    """Hours into a run, the likeliest way for it to end; and an out_dir that is a file, the likeliest at its start."""
    shutil.copytree(trained.out_dir, tmp_path / 'run')
    os.symlink('/dev/full', tmp_path / 'run/last.pt.tmp')
    log = log_of(tmp_path / 'run')
    for anew in (['--init_from=resume', '--max_epochs=7'], trained.args):
        result = run('train.py', f'--out_dir={tmp_path}/run', *anew, status=2)
        assert 'No space left on device' in result.err and 'Traceback' not in result.err
        assert log_of(tmp_path / 'run') == log, 'a run that cannot begin does not empty what another has logged'
    assert_same_weights(tmp_path / 'run/last.pt', os.path.join(trained.out_dir, 'last.pt'))
    result = run('train.py', *trained.args, f'--out_dir={tmp_path}/run/last.pt', status=2)
    assert 'last.pt' in result.err and 'check --out_dir' in result.err and 'Traceback' not in result.err
    assert_same_weights(tmp_path / 'run/last.pt', os.path.join(trained.out_dir, 'last.pt'))


@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='/proc tells which files are open, on Linux')
def test_no_file_is_renamed_while_it_is_open(trained, tmp_path):
    """Windows forbids it: there each training ended at its metrics.jsonl, before the first step."""
    (tmp_path / 'sitecustomize.py').write_text("""
import os

def replace(old, new, replace=os.replace):
    links = [os.path.join('/proc/self/fd', fd) for fd in os.listdir('/proc/self/fd')]
    held = [os.readlink(link) for link in links if os.path.islink(link)]
    assert not {os.path.realpath(old), os.path.realpath(new)} & {*held}, f'{old} or {new} is open'
    replace(old, new)

os.replace = os.rename = replace
""")
    env, flags = {'PYTHONPATH': str(tmp_path)}, [f'--out_dir={tmp_path}/run', f'--data_dir={tmp_path}/data']
    run('train.py', *trained.args, *flags, '--max_epochs=1', '--eval_interval=20', env=env)
    run('train.py', *flags, '--init_from=resume', '--max_epochs=2', env=env)
    assert [x['iter'] for x in log_of(tmp_path / 'run') if 'val_loss' in x] == [20, 27, 40, 54], 'at intervals, and at each end'


def test_git_is_not_needed(trained, tmp_path):
    """A checkpoint notes the commit; where the project came as an archive, to a machine without git, it notes none."""
    os.symlink('/bin/sh', tmp_path / 'sh')
    run('train.py', *trained.args, f'--out_dir={tmp_path}/run', '--max_iters=1', env={'PATH': str(tmp_path)})
    assert torch.load(tmp_path / 'run/best.pt', weights_only=True)['git'] == ''


def test_a_checkpoint_of_another_version_is_not_resumed(trained, tmp_path):
    """Its optimizer may have other groups of weights: that was a traceback when head_epochs came."""
    last = torch.load(os.path.join(trained.out_dir, 'last.pt'), weights_only=True)
    del last['settings']['head_epochs']
    torch.save(last, tmp_path / 'last.pt')
    result = run('train.py', f'--out_dir={tmp_path}', '--init_from=resume', status=2)
    assert 'another version' in result.err and os.listdir(tmp_path) == ['last.pt'], result.err


def test_a_resumed_run_keeps_its_settings(trained, tmp_path):
    """Another batch size would make another run of it, and the log would not say so."""
    result = run('train.py', f'--out_dir={trained.out_dir}', '--init_from=resume', '--batch_size=4', status=2)
    assert 'batch_size=8, not 4' in result.err


def test_what_is_typed_counts_on_resuming_even_if_it_is_the_default(trained, tmp_path):
    """A run that patience=1 had ended could not be gone on with by --patience=0, which is train.py's own value: never."""
    shutil.copytree(trained.out_dir, tmp_path / 'run')
    last = torch.load(tmp_path / 'run/last.pt', weights_only=True)
    last['settings'] |= dict(patience=1, max_epochs=3)
    last['run']['bad_evals'] = 1
    torch.save(last, tmp_path / 'run/last.pt')
    args = [f'--out_dir={tmp_path}/run', '--init_from=resume']
    assert run('train.py', *args, '--max_epochs=4').last['stopped'] == 'early'
    assert run('train.py', *args, '--max_epochs=4', '--patience=0').last['stopped'] == 'max'
    result = run('train.py', *args, '--batch_size=16', status=2)
    assert 'batch_size=8, not 16' in result.err, 'the default, but typed'


def test_a_moved_run_goes_on_where_it_lies_now(trained, tmp_path):
    """Even in the folder that out_dir names by default: its checkpoint knows another, which may hold another run by now."""
    shutil.copytree(trained.out_dir, tmp_path / 'out' / 'run')
    before = {file: os.stat(os.path.join(trained.out_dir, file)).st_mtime_ns for file in os.listdir(trained.out_dir)}
    result = run('train.py', '--init_from=resume', '--max_epochs=7', cwd=tmp_path)
    assert result.last['run'] == os.path.join('out', 'run') and log_of(tmp_path / 'out' / 'run')[-1]['iter'] == 7 * 27
    assert before == {file: os.stat(os.path.join(trained.out_dir, file)).st_mtime_ns for file in os.listdir(trained.out_dir)}


def test_a_csv_of_ones_own_needs_no_other_file(tmp_path):
    """Labels of any names, no test file: a test split is carved out, and the scratch config works as it is."""
    write_rows(tmp_path / 'mine.csv', 120)
    args = ['config/train_sentiment_scratch.py', f'--dataset={tmp_path}/mine.csv', '--text_column=body', '--label_column=mood']
    args += [
        f'--data_dir={tmp_path}/data',
        f'--out_dir={tmp_path}/run',
        '--n_layer=1',
        '--n_head=1',
        '--n_embd=16',
        '--max_iters=3',
    ]
    last = run('train.py', *args).last
    assert last['dataset'] == 'mine' and last['n_test'] == 12 and last['n_train'] + last['n_val'] == 108


@pytest.mark.parametrize('script', ['train.py', 'prepare.py', 'sample_classify.py'])
def test_help_lists_every_setting_with_its_value(script):
    """The top of the script is the documentation; a setting that a formatter broke over lines would lose its advice."""
    lines = [line for line in run(script, '-h').out.splitlines() if line.startswith('  --')]
    assert len(lines) > 7 and all(re.match(r"  --\w+=('.*?'|[\w.+-]+)( |$)", line) for line in lines), lines


def test_a_model_left_at_its_defaults_is_the_one_that_train_lists():
    """train.py hands on what differs from its defaults; if model.py had others, `-h` would describe another net."""
    for name in 'n_layer n_head n_embd causal block_size'.split():
        assert getattr(train, name) == getattr(Config(), name), name


def test_graphs_that_cannot_be_are_refused(tiny, tmp_path):
    """In place of a traceback, or of steps that are silently not recorded."""
    for graphs in ('True', 'maybe'):
        done = run('train.py', *tiny, f'--graphs={graphs}', f'--out_dir={tmp_path}/run', status=2)
        assert f'graphs={graphs}' in done.err and done.err.count('\n') == 1


@pytest.mark.parametrize('most', [100, 128, 512])
def test_few_shapes_hold_every_text(most):
    """Each shape is recorded as a CUDA graph of its own: few of them, but no text cut, none past the last position."""
    rng, shapes = np.random.default_rng(0), set()
    for longest in range(1, most + 1):
        texts = [rng.integers(1, 9, n) for n in (longest, max(longest - 3, 1))]
        idx, lengths = pad(texts, most)
        assert lengths.tolist() == [len(ids) for ids in texts] and idx[0, :longest].tolist() == texts[0].tolist()
        assert longest <= idx.size(1) <= most and idx.size(1) < max(longest + 8, 1.25 * longest) and not idx[0, longest:].any()
        shapes.add(idx.size(1))
    assert len(shapes) <= 8 + 4 * math.ceil(math.log2(most / 64))


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='CUDA graphs want an NVIDIA GPU')
CUDA = '--device=cuda --max_iters=60 --lr_decay_iters=60 --eval_interval=30 --log_interval=1'.split()


@gpu
def test_a_recorded_step_is_the_step(tiny, tmp_path):
    """Replayed it must do what it did kernel by kernel, with this step's texts and rate, and stop at what is not finite."""
    losses, env = [], {'CUDA_VISIBLE_DEVICES': '0'}
    for graphs in (False, True):
        args = [*tiny, *CUDA, '--dropout=0.0', f'--graphs={graphs}', f'--out_dir={tmp_path}/{graphs}']
        assert f'graphs {graphs}' in run('train.py', *args, env=env).out
        losses.append([x['loss'] for x in log_of(tmp_path / str(graphs)) if 'loss' in x])
    assert len(losses[0]) == 60 and losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[0][:9] == pytest.approx(losses[1][:9], rel=1e-4)  # TF32 rounds by shape, which differs: 7e-6 on an H100
    args = [*tiny, *CUDA, '--learning_rate=1e9', f'--out_dir={tmp_path}/nan']
    assert 'lower learning_rate' in run('train.py', *args, env=env, status=2).err


@gpu
def test_recorded_dropout_follows_the_seed():
    """A graph must not repeat the mask it was recorded with; and a resumed run draws what an uninterrupted one drew."""

    def step(x):
        return torch.nn.functional.dropout(x, 0.5) + torch.rand_like(x)

    recorded, x, drawn, alone = Recorded(step), torch.ones(1000, device='cuda'), [], []
    for seed in (0, 1, 2, 1):  # the first is stepped on, the others are replayed
        torch.manual_seed(seed)
        drawn.append(recorded(x).clone())
        torch.manual_seed(seed)
        alone.append(step(x))
    assert all(map(torch.equal, drawn, alone)) and drawn[1].ne(drawn[2]).any()


@gpu
def test_a_recorded_run_resumes(tiny, tmp_path):
    args, env = [*tiny, *CUDA], {'CUDA_VISIBLE_DEVICES': '0'}
    run('train.py', *args, f'--out_dir={tmp_path}/whole', env=env)
    run('train.py', *args, '--max_iters=30', f'--out_dir={tmp_path}/halves', env=env)
    run('train.py', *args, '--init_from=resume', f'--out_dir={tmp_path}/halves', env=env)
    whole, halves = ([x['loss'] for x in log_of(tmp_path / name) if 'loss' in x] for name in ('whole', 'halves'))
    assert len(halves) == 60 and halves == pytest.approx(whole, rel=1e-2)
