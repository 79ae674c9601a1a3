# python -m pytest tests/test_batches.py
# texts through a net in batches: whose logits are whose, and what the machine is left with

import platform

import numpy as np
import pytest
import torch
from conftest import ROOT, run

from batches import pad, predict
from model import Config, Transformer


@pytest.fixture
def threads():
    """To be set within a test, and as before after it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def some_net_and_texts():
    torch.manual_seed(0)
    model = Transformer(Config(block_size=30, vocab_size=40, n_layer=2, n_head=2, n_embd=16))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    rng = np.random.default_rng(0)
    return model, [rng.integers(0, 40, n).astype(np.uint16) for n in rng.integers(1, 31, 25)]


@pytest.mark.parametrize('n', [1, 2, 3])
def test_prediction_comes_back_in_order_whatever_the_batch(n, threads):
    """Neither sorting by length nor threads that take batches as they come may shuffle whose logits are whose."""
    threads(n)
    model, texts = some_net_and_texts()
    alone = np.concatenate([model(*pad([ids]))[0].detach().numpy() for ids in texts])
    for batch_size in (1, 4, 100):
        np.testing.assert_allclose(predict(model, texts, batch_size), alone, atol=1e-5)
    np.testing.assert_allclose(predict(model, texts, 4, rows=np.array([7, 2, 2])), alone[[7, 2, 2]], atol=1e-5)
    assert model.training and torch.get_num_threads() == n, 'and the model and the machine are left as they were'


def test_a_prediction_that_fails_leaves_the_machine_as_it_was(threads):
    """In a notebook the session goes on after an error or a Ctrl-C: with all its threads, and a model that still trains."""
    threads(2)
    model, texts = some_net_and_texts()
    with pytest.raises(IndexError):
        predict(model, [*texts, np.array([40])], 4)  # an id that the net does not know
    assert model.training and torch.get_num_threads() == 2


@pytest.mark.parametrize('n', [1, 3])
def test_prediction_in_bfloat16_is_what_autocast_computes(n, threads):
    """Weights are cast once, in a copy: the same numbers to the last bit, and the model keeps its float32."""
    threads(n)
    model, texts = some_net_and_texts()
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        alone = np.concatenate([model(*pad([ids]))[0].numpy() for ids in texts])
    before = [p.clone() for p in model.parameters()]
    assert (predict(model, texts, 1, torch.bfloat16) == alone).all() and (predict(model, texts, 1) != alone).any()
    assert all(p.dtype == torch.float32 and p.equal(old) for p, old in zip(model.parameters(), before))


def test_a_step_gets_back_the_memory_of_the_last():
    """glibc would return large blocks to the kernel, which clears them anew, page by page; and more so those of a thread."""
    code = """
import resource, sys, threading, torch
from batches import keep_memory
keep_memory(sys.argv[1] == 'keep')
def steps(n):
    for _ in range(n):
        some = [torch.ones(n * 1_000_000) for n in (2, 20, 3, 12, 5)]
        del some
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
for n in (20, 10):
    steps(n)
for n in (20, 10):
    thread = threading.Thread(target=steps, args=(n,))
    thread.start()
    thread.join()
"""
    if platform.libc_ver()[0] != 'glibc':
        pytest.skip('keep_memory speaks to glibc alone')
    returned, kept = (np.array(run(['-c', code, how], cwd=ROOT).out.split(), int) for how in ('return', 'keep'))
    for i in (1, 3):  # the pages of the last ten steps, here and in a thread
        assert returned[i] - returned[i - 1] > 10_000 and kept[i] - kept[i - 1] < (returned[i] - returned[i - 1]) / 10
