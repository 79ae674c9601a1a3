# python -m pytest tests/test_bench.py
# the stopwatch: that it measures the same work on both sides, and counts what it says it counts

import tempfile

import pytest
import torch
import transformers
from conftest import SLOW, run

import bench
from bench import Synthetic


def test_synthetic_rows_are_a_split():
    split = Synthetic(50, 7)
    assert len(split) == 50 and {len(split[i]) for i in range(50)} == {7} and split.lengths.tolist() == [7] * 50


def test_ours_alone():
    """Whole texts, no padding where all are equally long, and a share of the peak that a machine can have."""
    args = '--model=scratch --dataset=synthetic --length=24 --rows=2000 --batch_size=4 --turns=2 --steps=3 --device=cpu'
    m = run('bench.py', *args.split(), '--dtype=float32').last
    assert m['train']['padding'] == 0 and m['train']['tokens_per_s'] == pytest.approx(
        24 * m['train']['examples_per_s'], rel=0.2
    )
    shares, (slower, faster) = zip(*((m[kind]['share_of_peak'], m[kind]['examples_per_s']) for kind in ('train', 'infer')))
    assert min(shares) > 0 and m['max_rss_mb'] > 100
    if SLOW > 1 and (max(shares) >= 1 or slower >= faster):
        pytest.skip('this machine stalls: the peak was found too low, or a turn was unlucky; not judged')
    assert max(shares) < 1 and faster > slower


def test_both_sides_do_the_same_work(tmp_path):
    """Theirs has our weights and our rows, so it gives our answers; else a ratio would say nothing."""
    sizes = dict(vocab_size=2001, pad_token_id=2000, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path)
    args = f'--model={tmp_path} --dataset=synthetic --length=9 --rows=100 --block_size=16 --turns=1 --what=infer --device=cpu'
    m = run('bench.py', *args.split(), '--peer=transformers', '--dtype=float32').last
    assert m['peer_infer']['sorted loop']['same_answers'] == 1.0
    ours, theirs = m['infer']['examples_per_s'], m['peer_infer']['sorted loop']['examples_per_s']
    assert m['peer_infer']['sorted loop']['ratio'] == pytest.approx(ours / theirs)


def test_the_trainer_computes_as_its_flags_say(tmp_path, monkeypatch):
    """accelerate prepares a net but once: the second Trainer of a net went on in float32 and stood in our table as bfloat16."""
    sizes = dict(vocab_size=2001, pad_token_id=2000, n_positions=64, n_embd=32, n_layer=1, n_head=2, num_labels=2)
    net, dtypes = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes)), []
    net.transformer.h[0].mlp.c_fc.register_forward_hook(lambda module, given, out: dtypes.append(out.dtype))
    space = dict(theirs=net, transformers=transformers, split=Synthetic(200, 9), device='cpu', steps=2, batch_size=4, seen=[])
    for name, value in space.items():
        monkeypatch.setattr(bench, name, value, raising=False)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for bf16 in (False, True, False):
        before = net.score.weight.detach().clone()
        dtypes.clear()
        bench.train_theirs(bf16=bf16)
        assert set(dtypes) == {torch.bfloat16 if bf16 else torch.float32}
        assert not net.score.weight.equal(before), 'and what it has learned stays'


@pytest.mark.parametrize('mistake', ['--dataset=nowhere.csv', '--what=sing', '--peer=nobody'])
def test_a_mistake_costs_one_line(mistake):
    done = run('bench.py', '--model=scratch', mistake, status=2)
    assert mistake.rpartition('=')[2] in done.err and done.err.count('\n') == 1
