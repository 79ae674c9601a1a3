# python -m pytest tests/test_metrics.py
# the numbers that everything else is judged by

import numpy as np
import pytest
import torch

from evaluate import confusion, metrics, pad, precision_recall_f1, predict, softmax, table, wilson
from model import Config, Transformer


def test_a_confusion_matrix_worked_by_hand():
    """
    truth      0 0 1 2      class 0: 1 of 2 found, 1 of 1 said rightly   precision 1    recall 1/2  F1 2/3
    predicted  0 1 1 1      class 1: 1 of 1 found, 1 of 3 said rightly   precision 1/3  recall 1    F1 1/2
                            class 2: never said                          precision 0    recall 0    F1 0
    """
    counts = confusion([0, 0, 1, 2], [0, 1, 1, 1], 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    for found, expected in zip(precision_recall_f1(counts), ([1, 1 / 3, 0], [0.5, 1, 0], [2 / 3, 0.5, 0])):
        np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize('n, n_class, said', [(200, 3, 3), (200, 5, 3), (1, 2, 2), (40, 3, 1), (7, 4, 4)])
def test_metrics_are_scikit_learns(n, n_class, said):
    """On random rows and degenerate ones: one row, a class nobody says, a class that does not occur."""
    sk = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(n + n_class)
    y = rng.integers(0, n_class, n) if n != 7 else np.zeros(7, dtype=int)
    logits = rng.normal(size=(n, n_class)).astype(np.float32)
    logits[:, said:] = -9
    labels = [f'label {i}' for i in range(n_class)]
    m, guess = metrics(logits, y, labels), logits.argmax(1)
    assert m['accuracy'] == sk.accuracy_score(y, guess)
    assert m['macro_f1'] == pytest.approx(sk.f1_score(y, guess, average='macro'))
    assert m['nll'] == pytest.approx(sk.log_loss(y, softmax(logits), labels=range(n_class)), rel=1e-5)
    assert m['confusion'] == sk.confusion_matrix(y, guess, labels=range(n_class)).tolist()
    each = sk.precision_recall_fscore_support(y, guess, labels=range(n_class), zero_division=0)
    for i, label in enumerate(labels):
        assert list(m['per_class'][label].values()) == pytest.approx([x[i] for x in each])
    assert all(label[:5] in table(m, labels) for label in labels)


def test_wilson_is_the_published_interval():
    """Newcombe 1998, table I (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E)."""
    for hits, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1), abs=5e-5)


def test_extreme_logits_stay_finite():
    m = metrics(np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32), [0, 0], ['a', 'b'])
    assert np.isfinite(m['nll']) and m['accuracy'] == 0.5


def test_prediction_comes_back_in_order_whatever_the_batch():
    """Sorting by length must not shuffle whose logits are whose."""
    torch.manual_seed(0)
    model = Transformer(Config(block_size=30, vocab_size=40, n_layer=2, n_head=2, n_embd=16))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 40, n).astype(np.uint16) for n in rng.integers(1, 31, 25)]
    alone = np.concatenate([model(*pad([ids]))[0].detach().numpy() for ids in texts])
    for batch_size in (1, 4, 100):
        np.testing.assert_allclose(predict(model, texts, batch_size), alone, atol=1e-5)
    np.testing.assert_allclose(predict(model, texts, 4, rows=np.array([7, 2, 2])), alone[[7, 2, 2]], atol=1e-5)
    assert model.training, 'and the model is left as it was'
