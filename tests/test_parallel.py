"""Two processes under torchrun train as one process does."""

import pytest
import torch
from conftest import ROOT, assert_same_weights, read_checkpoint, read_log, run

TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']


@pytest.mark.parametrize(
    'passes, flags',
    [
        (2, '--lm_weight=0.1'),
        pytest.param(4, '', marks=pytest.mark.slow),
        pytest.param(2, '--head_epochs=1', marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(trained, run_here, tmp_path, passes, flags):
    """The same batch in two halves gives the same loss curve, class weights included."""
    # 211 texts in steps of 14 or 28: the last step of an epoch has 1 text, which leaves the second
    # process none, or 15 texts for four passes
    batches = [f'--gradient_accumulation_steps={passes}', '--batch_size=7', '--val_fraction=0.12']
    length = ['--class_weight=balanced', '--max_epochs=2', '--log_interval=1']
    args = [*trained.args, *batches, *length, *flags.split()]

    one = run_here('train.py', *args, f'--out_dir={tmp_path}/one').last
    two = run([*TORCHRUN, f'{ROOT}/train.py'], *args, f'--out_dir={tmp_path}/two').last

    assert one['n_train'] == 211
    lines_of_one = read_log(tmp_path / 'one')
    lines_of_two = read_log(tmp_path / 'two')
    n_steps = 2 * -(-211 // (7 * passes))
    assert len(lines_of_one) == len(lines_of_two) == n_steps + 2  # and two evaluations
    for line_of_one, line_of_two in zip(lines_of_one, lines_of_two):
        assert line_of_two == pytest.approx(line_of_one, abs=1e-5)
    assert two['test']['accuracy'] == one['test']['accuracy']


def test_passes_that_do_not_divide_among_the_processes_are_refused(
    tiny, run_here, tmp_path, monkeypatch
):
    """Before the processes wait for each other, which would be for ever."""
    monkeypatch.setenv('WORLD_SIZE', '2')
    flags = ['--gradient_accumulation_steps=3', f'--out_dir={tmp_path}']
    err = run_here('train.py', *tiny, *flags, status=2).err
    assert 'gradient_accumulation_steps=3 cannot be shared' in err
    assert 'a multiple of the 2 processes' in err


def test_the_passes_of_a_resumed_run_are_those_of_its_checkpoint(
    trained, run_here, tmp_path, monkeypatch
):
    """They need not be typed again, and must fit the processes as well."""
    last = read_checkpoint(f'{trained.out_dir}/last.pt')
    last['settings']['gradient_accumulation_steps'] = 3
    torch.save(last, tmp_path / 'last.pt')
    monkeypatch.setenv('WORLD_SIZE', '2')
    flags = [f'--out_dir={tmp_path}', '--init_from=resume']
    err = run_here('train.py', *flags, status=2).err
    assert 'gradient_accumulation_steps=3 cannot be shared' in err


@pytest.mark.slow
def test_a_run_of_two_processes_resumes(tiny, tmp_path):
    args = [*tiny, '--gradient_accumulation_steps=2', '--lr_decay_iters=28', '--log_interval=1']
    two = [*TORCHRUN, f'{ROOT}/train.py']
    run(two, *args, '--max_epochs=2', f'--out_dir={tmp_path}/whole')
    run(two, *args, '--max_epochs=1', f'--out_dir={tmp_path}/halves')
    run(two, f'--out_dir={tmp_path}/halves', '--init_from=resume', '--max_epochs=2')
    assert read_log(tmp_path / 'halves') == read_log(tmp_path / 'whole')
    assert_same_weights(tmp_path / 'halves/last.pt', tmp_path / 'whole/last.pt')
