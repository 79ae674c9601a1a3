"""The training script as a user runs it: what is learned, reported, chosen and refused."""

import json
import math
import os
import re
import shutil
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import (
    ROOT,
    assert_same_weights,
    in_time,
    read_checkpoint,
    read_log,
    run,
    start,
    write_rows,
)

import train
from nanosentiment.files import read_sealed_json

# -----------------------------------------------------------------------------
# the functions of train.py


def set_schedule(monkeypatch, decay_lr, warmup_iters):
    settings = {'learning_rate': 1.0, 'min_lr': 0.1, 'decay_lr': decay_lr}
    for name, value in {**settings, 'warmup_iters': warmup_iters}.items():
        monkeypatch.setattr(train, name, value)


@pytest.mark.parametrize('decay_lr', ['cosine', 'linear'])
def test_the_learning_rate_warms_up_and_comes_down(monkeypatch, decay_lr):
    set_schedule(monkeypatch, decay_lr, warmup_iters=10)
    rates = [train.get_lr(it, 110) for it in range(120)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)  # half way
    assert rates[110] == rates[119] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_cosine_begins_slower_than_linear(monkeypatch):
    set_schedule(monkeypatch, 'cosine', warmup_iters=10)
    assert train.get_lr(35, 110) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    set_schedule(monkeypatch, 'linear', warmup_iters=10)
    assert train.get_lr(35, 110) == pytest.approx(0.1 + 0.9 * 0.75)


def test_the_learning_rate_may_stay_as_it_is(monkeypatch):
    set_schedule(monkeypatch, 'none', warmup_iters=0)
    assert train.get_lr(60, 110) == 1.0


@pytest.mark.parametrize('how, ratio', [('balanced', 542 / 17), ('sqrt', (542 / 17) ** 0.5)])
def test_class_weights_average_one_over_the_texts(monkeypatch, how, ratio):
    """Weights of another size would change the learning rate without a word."""
    monkeypatch.setattr(train, 'class_weight', how)
    counts = np.array([542, 411, 17])
    weight, prior = train.loss_weights(counts, 'cpu')
    assert prior is None
    assert (weight * torch.tensor(counts)).sum() / 970 == pytest.approx(1)
    assert weight[2] / weight[0] == pytest.approx(ratio)


@pytest.mark.parametrize('how', ['none', 'sampling'])
def test_a_loss_may_have_no_weights(monkeypatch, how):
    monkeypatch.setattr(train, 'class_weight', how)
    assert train.loss_weights(np.array([542, 411, 17]), 'cpu') == (None, None)


def test_logit_adjustment_adds_the_frequencies_of_the_labels(monkeypatch):
    monkeypatch.setattr(train, 'class_weight', 'logit')
    counts = np.array([542, 411, 17])
    weight, prior = train.loss_weights(counts, 'cpu')
    assert weight is None
    torch.testing.assert_close(prior.exp(), torch.tensor(counts / 970, dtype=torch.float32))


def test_the_best_checkpoint_has_the_highest_f1_or_the_lowest_loss():
    """Of two models with the same F1, the one with the lower loss is better."""
    scores = {'nll': 0.5, 'balanced_nll': 0.7, 'accuracy': 0.9, 'macro_f1': 0.8}
    assert train.selection_score(scores, 'val_loss') == [-0.5]
    assert train.selection_score(scores, 'val_balanced_loss') == [-0.7]
    assert train.selection_score(scores, 'val_accuracy') == [0.9, -0.5]
    assert train.selection_score(scores, 'val_macro_f1') == [0.8, -0.5]


@pytest.mark.parametrize(
    'iters_per_epoch, iters',
    [(30, 300), (200, 2000), (500, 2000), (4000, 8000)],
)
def test_the_length_of_a_run_follows_the_size_of_the_data(monkeypatch, iters_per_epoch, iters):
    """Ten epochs of a few texts, at most 2,000 steps of many, but each text at least twice."""
    for name, value in {'max_epochs': 10, 'max_iters': 2000, 'min_epochs': 2}.items():
        monkeypatch.setattr(train, name, value)
    assert train.count_iters(iters_per_epoch) == iters


def test_without_max_epochs_the_steps_are_counted_alone(monkeypatch):
    for name, value in {'max_epochs': 0, 'max_iters': 7, 'min_epochs': 0}.items():
        monkeypatch.setattr(train, name, value)
    assert train.count_iters(3) == 7


def test_of_many_labels_only_the_most_frequent_are_listed():
    """The line about the data must stay a line with 109 labels, too."""
    counts = np.array([1, 4, 3, 2])
    described = train.describe_labels(['a', 'b', 'c', 'd'], counts, n_shown=2)
    assert described == 'b 40.0%, c 30.0%, 2 more labels, the rarest in 1 texts'
    assert train.describe_labels(['a', 'b'], np.array([1, 3])) == 'b 75.0%, a 25.0%'


def test_the_bar_says_how_far_the_run_is():
    bar = train.progress_bar(500, 2000, 0.81234, 1302.4, seconds_left=83.9)
    assert bar == (
        '[#####...............]  25%  iter 500/2,000  loss 0.8123  1,302 texts/s  1:23 left'
    )


@pytest.mark.parametrize(
    'metric, warning',
    [
        ('val_loss', ''),
        ('val_accuracy', ''),
        ('val_macro_f1', 'a bag of words does better here (macro-F1 0.800)'),
    ],
)
def test_a_better_bag_of_words_is_said(metric, warning):
    """By the score that the run itself was chosen by: here only its macro-F1 is lower."""
    bag_of_words = {'confusion': [[4, 1], [1, 4]]}
    evaluation = {
        'baseline': {'bag_of_words': bag_of_words},
        'accuracy': 0.8,
        'macro_f1': 0.75,
    }
    assert train.better_baseline(evaluation, metric) == warning
    evaluation['baseline'] = {'bag_of_words': None}  # the training split has none
    assert train.better_baseline(evaluation, metric) == ''


class ToySplit:
    """20 texts of one token, 2 of them of label 1: what the order of an epoch depends on."""

    labels = np.array([0] * 18 + [1] * 2)
    offsets = np.arange(21)

    def __len__(self):
        return 20


def take_steps(first_iter, n):
    steps = train.training_steps(ToySplit(), 6, first_iter, 4)  # 20 texts are 4 steps of up to 6
    return [next(steps).tolist() for _ in range(n)]


def test_a_resumed_run_draws_the_rows_of_an_uninterrupted_one():
    steps = take_steps(0, 8)
    assert sorted(sum(steps[:4], [])) == list(range(20))
    assert sorted(sum(steps[4:], [])) == list(range(20))
    assert steps[:4] != steps[4:]
    for first_iter in range(8):
        assert take_steps(first_iter, 8 - first_iter) == steps[first_iter:]


def test_sampling_shows_a_rare_label_as_often_as_the_other(monkeypatch):
    monkeypatch.setattr(train, 'class_weight', 'sampling')
    rows = sum(take_steps(0, 400), [])
    assert len(rows) == 2000
    assert ToySplit.labels[rows].mean() == pytest.approx(0.5, abs=0.05)


# -----------------------------------------------------------------------------
# a run from a CSV file to a number


def test_a_run_learns(trained):
    """A few words give the labels away, so a model that reads must find nearly all of them."""
    last = trained.result.last
    assert last['test']['accuracy'] > 0.9, trained.result.out
    assert min(last['test']['recall'].values()) > 0.5
    losses = [line['train_loss'] for line in read_log(trained.out_dir) if 'train_loss' in line]
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]


def test_a_run_reports(trained):
    """A table for people, and one JSON object in the last line, which is also kept in a file."""
    last = trained.result.last
    assert list(last) == [
        *('run', 'dataset', 'tokenizer', 'n_params', 'n_train', 'n_val', 'n_test', 'best', 'test'),
        *('train_examples_per_s', 'seconds', 'stopped', 'seed', 'fold', 'command'),
        *('git', 'machine'),
    ]
    assert (last['n_train'], last['n_val'], last['n_test']) == (216, 24, 60)
    assert list(last['best']) == ['iter', 'epoch', 'val_loss', 'val_accuracy', 'val_macro_f1']
    assert list(last['test']) == ['accuracy', 'accuracy_ci', 'macro_f1', 'recall']
    assert last['stopped'] == 'max'
    # the time and the scores depend on these
    assert re.fullmatch(r'.+, \d+ threads, float32, torch \d.+', last['machine'])
    for label in ('good', 'bad', 'odd'):
        row_of_table = rf'^{label} +[0-9.]+ +[0-9.]+ +[0-9.]+ +\d+'
        assert re.search(row_of_table, trained.result.out, re.MULTILINE)
    assert read_sealed_json(f'{trained.out_dir}/summary.json', '') == last


def test_in_a_log_a_short_run_shows_no_progress(trained):
    """A bar each second makes a log unreadable; there it is a line a minute."""
    assert '#' not in trained.result.out


def test_on_a_terminal_the_bar_is_overwritten(tiny, tmp_path):
    """One line that stays: it is erased before the next bar and before each evaluation."""
    pty = pytest.importorskip('pty')  # Windows has none
    terminal, program_side = pty.openpty()
    process = start('train.py', *tiny, f'--out_dir={tmp_path}', stdout=program_side)
    os.close(program_side)
    printed = b''
    try:
        while part := os.read(terminal, 1 << 16):
            printed += part
    except OSError:  # how Linux says that the program has closed its side
        pass
    assert process.wait() == 0

    bars = re.findall(rb'\r\x1b\[K(\[#*\.*\] [^\r\n]* left)([\r\n])', printed)
    assert bars
    assert {end for _, end in bars} == {b'\r'}, 'a bar is followed by what erases it'


def test_best_is_the_best_and_last_is_the_last(trained):
    """nanoGPT may overwrite its best checkpoint with a worse one."""
    evaluations = [line for line in read_log(trained.out_dir) if 'val_loss' in line]
    best_line = max(evaluations, key=lambda line: (line['val_macro_f1'], -line['val_loss']))
    best = read_checkpoint(f'{trained.out_dir}/best.pt')
    last = read_checkpoint(f'{trained.out_dir}/last.pt')
    assert best['metrics']['nll'] == best_line['val_loss']
    assert trained.result.last['best']['iter'] == best_line['iter']
    assert last['run']['iter'] == evaluations[-1]['iter'] == 6 * 27
    assert 'optimizer' in last
    assert 'optimizer' not in best


def test_the_best_may_be_chosen_by_the_balanced_loss(trained, run_here, tmp_path):
    """With three rare texts macro-F1 is a coin toss, and the plain loss hardly counts them."""
    objective = ['--class_weight=sqrt', '--lm_weight=0.1']
    flags = ['--metric=val_balanced_loss', f'--out_dir={tmp_path}']
    best = run_here('train.py', *trained.args, *objective, *flags).last['best']
    evaluations = [line for line in read_log(tmp_path) if 'val_loss' in line]
    # it chooses among the same evaluations
    assert evaluations == [line for line in read_log(trained.out_dir) if 'val_loss' in line]
    best_line = min(evaluations, key=lambda line: line['val_balanced_loss'])
    assert best['iter'] == best_line['iter']
    assert read_checkpoint(tmp_path / 'best.pt')['metrics']['nll'] == best_line['val_loss']


def test_a_run_without_validation_keeps_the_last_weights(tiny, run_here, tmp_path):
    """Who has few texts may want to train on all of them, or has one text of each label only."""
    flags = ['--val_fraction=0', '--max_epochs=2', '--patience=1', f'--out_dir={tmp_path}']
    result = run_here('train.py', *tiny, *flags)
    assert 'no validation split' in result.out
    assert result.last['n_val'] == 0
    assert result.last['best'] == {'iter': 60, 'epoch': 2.0}
    assert result.last['test']['accuracy'] > 0
    assert_same_weights(tmp_path / 'best.pt', tmp_path / 'last.pt')


def test_patience_stops_early(trained, run_here, tmp_path):
    """With a learning rate of 0 no evaluation is better than the first."""
    flags = ['--patience=2', '--learning_rate=0', '--max_epochs=50', f'--out_dir={tmp_path}']
    last = run_here('train.py', *trained.args, *flags).last
    assert last['stopped'] == 'early'
    assert last['best']['iter'] == 27
    assert [line['iter'] for line in read_log(tmp_path) if 'val_loss' in line] == [27, 54, 81]


def test_the_last_step_is_evaluated_whatever_the_interval(trained, run_here, tmp_path):
    flags = ['--max_epochs=1', '--eval_interval=20', f'--out_dir={tmp_path}']
    run_here('train.py', *trained.args, *flags)
    assert [line['iter'] for line in read_log(tmp_path) if 'val_loss' in line] == [20, 27]


def test_a_step_in_two_passes_is_the_step_in_one(trained, run_here, tmp_path):
    """Also the last step of an epoch, which here has one text, and none for the second pass."""
    flags = ['--max_epochs=1', '--dropout=0', '--val_fraction=0.12', '--log_interval=1']
    args = [*trained.args, *flags, '--class_weight=balanced', '--lm_weight=0.1']
    one = ['--batch_size=14', f'--out_dir={tmp_path}/one']
    two = ['--batch_size=7', '--gradient_accumulation_steps=2', f'--out_dir={tmp_path}/two']
    last = run_here('train.py', *args, *one).last
    run_here('train.py', *args, *two)
    assert last['n_train'] == 211 == 15 * 14 + 1
    lines_of_one = read_log(tmp_path / 'one')
    lines_of_two = read_log(tmp_path / 'two')
    assert len(lines_of_one) == len(lines_of_two) == 16 + 1
    for line_of_one, line_of_two in zip(lines_of_one, lines_of_two):
        assert line_of_two == pytest.approx(line_of_one, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run(trained, run_here, tmp_path):
    """One line with the step and the remedy, and the checkpoint of before."""
    flags = ['--learning_rate=1e20', '--grad_clip=0', f'--out_dir={tmp_path}']
    err = run_here('train.py', *trained.args, *flags, status=2).err
    assert re.search(r'loss is (nan|inf).* at iter \d+; lower learning_rate', err)
    for weight in read_checkpoint(tmp_path / 'last.pt')['model'].values():
        assert weight.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize('how', ['balanced', 'sampling', 'logit'])
def test_each_remedy_for_imbalance_finds_the_rare_label(trained, run_here, tmp_path, how):
    flags = [f'--class_weight={how}', '--max_epochs=12', f'--out_dir={tmp_path}']
    test = run_here('train.py', *trained.args, *flags).last['test']
    assert test['recall']['odd'] > 0.5
    assert test['accuracy'] > 0.8


# -----------------------------------------------------------------------------
# data


def test_a_csv_file_needs_no_other_file(run_here, tmp_path):
    """The config for training from scratch works with one's own table; a test split is taken."""
    write_rows(tmp_path / 'mine.csv', 120)
    data = [f'--dataset={tmp_path}/mine.csv', '--text_column=body', '--label_column=mood']
    sizes = ['--n_layer=1', '--n_head=1', '--n_embd=16', '--max_iters=3']
    folders = [f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/run']
    config = 'config/train_sentiment_scratch.py'
    last = run_here('train.py', os.path.join(ROOT, config), *data, *sizes, *folders).last
    assert last['dataset'] == 'mine'
    assert last['n_test'] == 12
    assert last['n_train'] + last['n_val'] == 108


@pytest.fixture
def no_network(monkeypatch):
    """A proxy that refuses every connection, and no raw files but those of the project."""
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    monkeypatch.setenv('HTTPS_PROXY', 'http://127.0.0.1:9')
    monkeypatch.setenv('NANOSENTIMENT_RAW', '')


@pytest.fixture
def without_raw_data():
    if os.path.exists(f'{ROOT}/data/customer_service/train.csv'):
        pytest.skip('the data set has been downloaded into data/')


SCRATCH = f'{ROOT}/config/train_sentiment_scratch.py'
TINY_MODEL = ['--n_layer=1', '--n_embd=16', '--n_head=1', '--max_iters=2']


def test_the_first_command_goes_on_with_the_demo_data(
    no_network, without_raw_data, run_here, tmp_path
):
    """Nobody may take the demo's scores for the data set's: its name stands in all that is kept."""
    folders = [f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/run']
    begin = time.perf_counter()

    result = run_here('train.py', SCRATCH, *folders, *TINY_MODEL, '--dataset=customer_service')
    seconds = time.perf_counter() - begin

    for words in ('#' * 100, 'GOING ON WITH config/train_demo.py', 'customer_service'):
        assert words in result.err
    assert re.search('^data +demo: ', result.out, re.MULTILINE)
    assert 'demo, test:' in result.out
    assert result.last['dataset'] == 'demo'
    checkpoint = read_checkpoint(tmp_path / 'run/best.pt')
    assert checkpoint['dataset'] == 'demo'
    # the settings are those of the demo, and then the flags
    assert checkpoint['settings']['tokenizer'] == 'bpe4096-prefix'
    assert checkpoint['settings']['speakers'] == 'all'
    assert checkpoint['settings']['n_layer'] == 1
    in_time(seconds, 60)


def test_a_run_that_fell_back_resumes_with_its_command(
    no_network, without_raw_data, run_here, tmp_path
):
    args = [SCRATCH, f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/run', *TINY_MODEL]
    run_here('train.py', *args)
    run_here('train.py', *args, '--init_from=resume', '--max_iters=3')
    assert [line['iter'] for line in read_log(tmp_path / 'run') if 'val_loss' in line] == [2, 3]


def test_without_a_fallback_the_way_out_is_named(no_network, without_raw_data, run_here, tmp_path):
    folders = [f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/run']
    err = run_here('train.py', SCRATCH, *folders, '--fallback_config=', status=2).err
    lines = [line for line in err.splitlines() if not line.startswith('downloading')]
    assert len(lines) == 1
    assert 'NANOSENTIMENT_RAW' in lines[0]


# -----------------------------------------------------------------------------
# mistakes

MISTAKES = {
    '--class_weight=heavy': 'balanced',
    '--n_head=3': 'n_embd 16',
    '--batch_size=0': 'batch_size=0',
    '--seed=3000000000': 'below 2147483648',
    '--backend=mpi': 'nccl, gloo',
    '--gradient_accumulation_steps=0': 'set it above 0',
    '--dropout=1.5': 'below 1',
    '--warmup_iters=-1': 'warmup_iters=-1',
    '--max_epochs=0': 'both 0',
    '--decay_lr=slowly': 'cosine, linear, none',
    '--metric=val_f2': 'val_balanced_loss',
    '--keep=middle': 'first, last, both',
    '--dataset=nowhere.csv': 'nowhere.csv',
    '--label_column=smell': 'id, mood, body',
    '--init_from=resume': 'last.pt',
    '--tokenizer=char': 'bpe<N>',
    '--max_iter=3': 'max_iters',
    '--device=cuda:99': '--device=cpu',
    '--dtype=float8': 'bfloat16',
    '--init_from=gpt5': 'none of scratch, resume, gpt2',
    '--freeze=3': 'the model has 2 layers',
    '--head_lr=0.1 --learning_rate=0': 'a learning_rate above 0',
    '--lm_weight=0.1 --causal=False': 'lm_weight needs a causal model',
    '--graphs=on': '--graphs=auto',
    '--graphs=maybe': 'auto, on, off',
    '--seeds=1': 'set it to 2 or more',
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_costs_one_line(trained, run_here, tmp_path, mistake):
    """What, where, remedy; exit status 2; no traceback, and no file is written over."""
    flags = [f'--out_dir={tmp_path}/run', *mistake.split()]
    err = run_here('train.py', *trained.args, *flags, status=2).err
    lines = [line for line in err.splitlines() if not line.startswith('preparing')]
    assert len(lines) == 1, err
    assert MISTAKES[mistake] in lines[0]
    assert not os.path.exists(tmp_path / 'run/last.pt')


def test_an_out_dir_that_is_a_file_is_refused(trained, run_here, tmp_path):
    shutil.copy(f'{trained.out_dir}/best.pt', tmp_path)
    err = run_here('train.py', *trained.args, f'--out_dir={tmp_path}/best.pt', status=2).err
    assert 'best.pt' in err
    assert 'check --out_dir' in err
    assert read_checkpoint(tmp_path / 'best.pt')['labels'] == ['bad', 'good', 'odd']


@pytest.mark.parametrize('script', ['train.py', 'prepare.py', 'sample_classify.py'])
def test_help_lists_every_setting_with_its_value(run_here, script):
    """The top of a script is its documentation; a setting on two lines would lose its advice."""
    out = run_here(script, '-h').out
    lines = [line for line in out.splitlines() if line.startswith('  --')]
    assert len(lines) > 7
    for line in lines:
        assert re.match(r"  --\w+=('.*?'|[\w.+-]+)( |$)", line), line


# -----------------------------------------------------------------------------
# wandb


class FakeWandb:
    """The package and its run in one object: notes what train.py gives to it."""

    Table = dict
    plot = SimpleNamespace(confusion_matrix=dict)

    def __init__(self):
        self.logged = []
        self.summary = {}
        self.is_finished = False

    def init(self, config, **more):
        self.config = config
        return self

    def log(self, values, step=None):
        self.logged.append(values)

    def finish(self):
        self.is_finished = True


def test_wandb_gets_every_line_of_the_log(trained, run_here, tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    flags = ['--wandb_log=True', '--max_epochs=2', f'--out_dir={tmp_path}']
    last = run_here('train.py', *trained.args, *flags).last
    *lines, plots = wandb.logged
    assert lines == read_log(tmp_path)
    assert set(plots) == {'confusion'}, 'texts are uploaded only if that is asked for'
    assert wandb.summary == last
    assert wandb.config['learning_rate'] == 3e-3
    assert wandb.is_finished


def read_wandb_records(path):
    """
    The records of a .wandb file, as bytes. It is a log in LevelDB's format: blocks of 32 KiB,
    in which pieces of records stand behind 7 bytes with their length and kind.
    """
    data = path.read_bytes()
    position = 7  # behind the head of the file
    record = b''
    while position + 7 <= len(data):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
        size = int.from_bytes(data[position + 4 : position + 6], 'little')
        kind = data[position + 6]
        record += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield record
            record = b''


@pytest.mark.slow
def test_wandb_keeps_the_history_without_a_network(trained, tmp_path):
    """The real package, offline: what it would upload must hold every evaluation."""
    from wandb.proto.wandb_internal_pb2 import Record

    env = {'WANDB_MODE': 'offline', 'WANDB_SILENT': 'true', 'HOME': str(tmp_path)}
    flags = ['--wandb_log=True', '--wandb_texts=True', '--max_epochs=2']
    flags.append(f'--out_dir={tmp_path}/run')
    run('train.py', *trained.args, *flags, env=env)

    (path,) = (tmp_path / 'run/wandb').glob('offline-run-*/run-*.wandb')
    losses = []
    keys = set()
    for data in read_wandb_records(path):
        for item in Record.FromString(data).history.item:
            names = [item.key, *item.nested_key]
            keys.update(names)
            if 'val_loss' in names:
                losses.append(json.loads(item.value_json))
    assert len(losses) == 2
    assert losses == [line['val_loss'] for line in read_log(tmp_path / 'run') if 'val_loss' in line]
    assert 'errors' in keys
    assert any('confusion' in key for key in keys), keys
