"""The speed tricks: each must give what its plain form gives."""

import platform

import numpy as np
import pytest
import torch
from conftest import ROOT, run
from torch.nn import functional as F

from model import Config, Transformer
from nanosentiment import fast
from nanosentiment.fast import predict
from nanosentiment.memmaps import pad_rows

# -----------------------------------------------------------------------------
# attention and dropout


@pytest.mark.parametrize('T', [1, 20, 32, 70, 150])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('is_causal', [True, False])
@pytest.mark.parametrize('dropout_p', [0.0, 0.1])
def test_attention_is_that_of_torch(dropout_p, is_causal, dtype, T, monkeypatch):
    """
    Which form is computed depends on dtype, length, dropout and whether there is a backward pass;
    the result and the gradients must depend on none of these.
    """
    # dropout is asked for, because it needs the written form, but drops nothing
    weight_shapes = []

    def no_dropout(weights, p):
        weight_shapes.append(weights.shape)
        return weights

    monkeypatch.setattr(fast, 'dropout', no_dropout)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    mask = None
    if not is_causal:
        lengths = torch.tensor([T, (T + 2) // 3])
        mask = (torch.arange(T) < lengths[:, None])[:, None, None]  # (B, 1, 1, T)
    torch.manual_seed(0)
    qkv = torch.randn(3, 2, 4, T, 8).to(dtype).requires_grad_()
    exact_qkv = qkv.detach().double().requires_grad_()

    y = fast.cpu_attention(*qkv, mask, is_causal, dropout_p)
    y.square().sum().backward()
    n_written_queries = sum(shape[2] for shape in weight_shapes)
    with torch.no_grad():
        y_without_backward = fast.cpu_attention(*qkv, mask, is_causal, dropout_p)
    expected = F.scaled_dot_product_attention(*exact_qkv, mask, 0.0, is_causal)
    expected.square().sum().backward()

    close = dict(atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(y.double(), expected, **close)
    torch.testing.assert_close(y_without_backward.double(), expected, **close)
    close = dict(atol=10 * tolerance, rtol=10 * tolerance)
    torch.testing.assert_close(qkv.grad.double(), exact_qkv.grad, **close)

    # the forms that were meant to be tested were computed
    is_written = dropout_p > 0 or dtype == torch.bfloat16
    assert n_written_queries == (T if is_written else 0)
    for _, _, n_queries, n_keys in weight_shapes:
        assert n_keys * dtype.itemsize % 64 == 0
        assert n_queries <= 64 or not is_causal


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('p', [0.1, 0.5, 0.9])
def test_dropout_drops_each_element_with_probability_p(p, dtype):
    """Four elements share a random number: each must drop p, and know nothing of the others."""
    x = torch.ones(400, 1001, dtype=dtype, requires_grad=True)  # 1001 is no multiple of four
    torch.manual_seed(0)
    y = fast.dropout(x, p)

    is_kept = y != 0
    by_place = is_kept.flatten()[: 400 * 1000].view(-1, 4).double()  # (1e5, 4)
    deviation = (p * (1 - p) / 1e5) ** 0.5
    correlation = torch.corrcoef(by_place.T) - torch.eye(4)
    assert (by_place.mean(dim=0) - (1 - p)).abs().max() < 6 * deviation
    assert correlation.abs().max() < 6 / 1e5**0.5

    rounding = 1e-2 if dtype == torch.bfloat16 else 1e-6
    assert y[is_kept].unique().item() == pytest.approx(1 / (1 - p), rel=rounding)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # what is dropped has no gradient


def test_dropout_follows_the_seed():
    x = torch.ones(100, 100)
    torch.manual_seed(0)
    y = fast.dropout(x, 0.5)
    torch.manual_seed(0)
    assert torch.equal(fast.dropout(x, 0.5), y)
    assert not torch.equal(fast.dropout(x, 0.5), y)


def test_dropout_of_nothing_of_all_and_of_nearly_all():
    x = torch.ones(100, 100)
    assert fast.dropout(x, 0.5, training=False) is x
    assert fast.dropout(x, 0.0) is x
    assert not fast.dropout(x, 1.0).any()
    n_kept = fast.dropout(x, 1 - 1e-7).count_nonzero()  # 16 random bits cannot express this share
    assert n_kept < 10


# -----------------------------------------------------------------------------
# prediction


@pytest.fixture
def set_threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Transformer(Config(block_size=30, vocab_size=40, n_layer=2, n_head=2, n_embd=16))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 31, 25)
    return [rng.integers(0, 40, n).astype(np.uint16) for n in lengths]


@torch.no_grad()
def logits_one_by_one(model, texts):
    """The plain form: each text by itself."""
    logits = []
    for ids in texts:
        idx, lengths = pad_rows([ids])
        logits_of_text, _ = model(torch.from_numpy(idx), torch.from_numpy(lengths))
        logits.append(logits_of_text.numpy())
    return np.concatenate(logits)


@pytest.mark.parametrize('n_threads', [1, 2, 3])
def test_predictions_come_in_the_order_of_the_texts(n_threads, set_threads, model, texts):
    """They are sorted by length, and threads take batches as they come."""
    set_threads(n_threads)
    expected = logits_one_by_one(model, texts)
    for batch_size in (1, 4, 100):
        np.testing.assert_allclose(predict(model, texts, batch_size), expected, atol=1e-5)
    rows = np.array([7, 2, 2])
    of_rows = predict(model, texts, 4, rows=rows)
    np.testing.assert_allclose(of_rows, expected[rows], atol=1e-5)
    # and the model and the number of threads are left as they were
    assert model.training
    assert torch.get_num_threads() == n_threads


def test_no_texts_give_no_predictions(model, texts):
    assert predict(model, []).shape == (0, 3)
    assert predict(model, texts, rows=np.arange(0)).shape == (0, 3)


def test_a_prediction_that_fails_leaves_the_process_as_it_was(set_threads, model, texts):
    """In a notebook the session goes on after an error or a Ctrl-C."""
    set_threads(2)
    unknown_id = np.array([40])
    with pytest.raises(IndexError):
        predict(model, [*texts, unknown_id], 4)
    assert model.training
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize('n_threads', [1, 3])
def test_predictions_in_bfloat16_are_those_of_autocast(n_threads, set_threads, model, texts):
    """Weights are cast once, in a copy: the same to the last bit, and the model stays float32."""
    set_threads(n_threads)
    before = [p.clone() for p in model.parameters()]
    with torch.autocast('cpu', torch.bfloat16):
        expected = logits_one_by_one(model, texts)
    logits = predict(model, texts, 1, torch.bfloat16)
    assert (logits == expected).all()
    assert (predict(model, texts, 1) != expected).any()
    for p, p_before in zip(model.parameters(), before):
        assert p.dtype == torch.float32
        assert p.equal(p_before)


# -----------------------------------------------------------------------------
# memory

COUNT_PAGES = """
import resource, sys, threading, torch
from nanosentiment.fast import keep_memory
keep_memory(sys.argv[1] == 'keep')
def steps(n):
    for _ in range(n):
        blocks = [torch.ones(n * 1_000_000) for n in (2, 20, 3, 12, 5)]
        del blocks
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
steps(6)
steps(4)
for n in (6, 4):
    thread = threading.Thread(target=steps, args=(n,))
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='keep_memory sets options of glibc')
def test_a_step_gets_the_memory_of_the_last_one_back():
    """glibc would return large blocks to the kernel, which clears them anew, page by page."""
    n_pages = {}
    for option in ('return', 'keep'):
        out = run(['-c', COUNT_PAGES, option], cwd=ROOT).out
        totals = [int(n) for n in out.split()]
        # those of the last four steps, in the main thread and in a thread of their own
        n_pages[option] = [totals[1] - totals[0], totals[3] - totals[2]]
    for n_returned, n_kept in zip(n_pages['return'], n_pages['keep']):
        assert n_returned > 10_000
        assert n_kept < n_returned / 10
