"""Steps recorded as CUDA graphs: they must do what the plain steps do. Skipped without a GPU."""

import pytest
import torch
from conftest import read_log, run

from nanosentiment.fast import GraphStep

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU')

ENV = {'CUDA_VISIBLE_DEVICES': '0'}
FLAGS = '--device=cuda --max_iters=60 --lr_decay_iters=60 --eval_interval=30 --log_interval=1'


def train_on_gpu(args, out_dir, *flags):
    """The loss of each step, and what was printed."""
    result = run('train.py', *args, *FLAGS.split(), *flags, f'--out_dir={out_dir}', env=ENV)
    losses = [line['loss'] for line in read_log(out_dir) if 'loss' in line]
    return losses, result.out


def test_recorded_steps_train_as_plain_steps_do(tiny, tmp_path):
    """Each replay must read its own texts and its own learning rate."""
    plain, out = train_on_gpu(tiny, tmp_path / 'plain', '--dropout=0.0', '--graphs=off')
    assert 'CUDA graphs False' in out
    recorded, out = train_on_gpu(tiny, tmp_path / 'recorded', '--dropout=0.0', '--graphs=on')
    assert 'CUDA graphs True' in out
    assert len(plain) == 60
    assert recorded == pytest.approx(plain, rel=1e-2)
    # TF32 rounds by shape, and recorded batches have other shapes: 7e-6 on an H100
    assert recorded[:9] == pytest.approx(plain[:9], rel=1e-4)


def test_a_recorded_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    flags = [*FLAGS.split(), '--learning_rate=1e9', f'--out_dir={tmp_path}']
    result = run('train.py', *tiny, *flags, env=ENV, status=2)
    assert 'lower learning_rate' in result.err


def test_recorded_dropout_follows_the_seed():
    """A graph must not repeat the mask that it was recorded with."""

    def step(x):
        return torch.nn.functional.dropout(x, 0.5) + torch.rand_like(x)

    graph_step = GraphStep(step)
    x = torch.ones(1000, device='cuda')
    drawn = []
    expected = []
    for seed in (0, 1, 2, 1):  # the first call computes the plain form, the others replay
        torch.manual_seed(seed)
        drawn.append(graph_step(x).clone())
        torch.manual_seed(seed)
        expected.append(step(x))
    for output, expected_output in zip(drawn, expected):
        assert torch.equal(output, expected_output)
    assert drawn[1].ne(drawn[2]).any()


def test_a_recorded_run_resumes(tiny, tmp_path):
    whole, _ = train_on_gpu(tiny, tmp_path / 'whole')
    train_on_gpu(tiny, tmp_path / 'halves', '--max_iters=30')
    halves, _ = train_on_gpu(tiny, tmp_path / 'halves', '--init_from=resume')
    assert len(halves) == 60
    assert halves == pytest.approx(whole, rel=1e-2)
