# python -m pytest tests/test_metrics.py
# the numbers that everything else is judged by

import os

import numpy as np
import pytest

from metrics import (
    compare,
    confusion,
    ece,
    fit,
    fit_temperature,
    interval,
    macro_f1,
    macro_f1_ci,
    mcnemar,
    metrics,
    precision_recall_f1,
    softmax,
    table,
    tags,
    wilson,
)


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


def test_the_balanced_loss_hears_each_label_alike():
    """scikit-learn's log loss with balanced sample weights; a label without a text has no say."""
    from sklearn.metrics import log_loss
    from sklearn.utils.class_weight import compute_sample_weight

    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(50, 4)), np.array([0] * 40 + [1] * 8 + [2] * 2)
    expected = log_loss(y, softmax(logits), sample_weight=compute_sample_weight('balanced', y), labels=range(4))
    assert metrics(logits, y, 'abcd')['balanced_nll'] == pytest.approx(expected)
    assert metrics(logits, y, 'abcd')['nll'] == pytest.approx(log_loss(y, softmax(logits), labels=range(4)))


def test_extreme_logits_stay_finite():
    m = metrics(np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32), [0, 0], ['a', 'b'])
    assert np.isfinite(m['nll']) and m['accuracy'] == 0.5


# -----------------------------------------------------------------------------
# how sure


def test_the_bootstrap_of_the_table_is_that_of_the_rows():
    """Redrawing counts stands for redrawing rows: the same interval, up to the luck of the draw."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    guess = np.where(rng.random(300) < 0.7, y, rng.integers(0, 3, 300))
    rows = []
    for _ in range(2000):
        some = rng.integers(0, 300, 300)
        rows.append(float(macro_f1(confusion(y[some], guess[some], 3))))
    assert macro_f1_ci(confusion(y, guess, 3)) == pytest.approx(interval(rows), abs=0.01)


def test_mcnemar_is_the_binomial_test():
    from scipy.stats import binomtest

    for a, b in [(0, 0), (1, 0), (2, 8), (5, 5), (30, 55), (700, 800)]:
        expected = binomtest(a, a + b).pvalue if a + b else 1.0
        assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(expected)
    assert mcnemar(2, 8) == pytest.approx(112 / 1024)  # the example worked in its docstring


def test_comparing_sees_a_difference_and_only_that():
    """A run against itself differs by nothing; one with 60 more rows right of 400 by 15 points, the interval around it."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    a = np.where(rng.random(400) < 0.8, y, 1 - y)
    b = a.copy()
    worse = np.flatnonzero(a == y)[:60]
    b[worse] = 1 - y[worse]
    same, found = (compare(y, a[:, None], x[:, None], 2) for x in (a, b))
    assert same['mcnemar_p'] == 1 and same['accuracy'] == {'difference': 0, 'ci': [0, 0]}
    assert found['accuracy']['difference'] == pytest.approx(0.15) and found['mcnemar_p'] < 1e-9
    low, high = found['accuracy']['ci']
    assert low == pytest.approx(0.15 - 1.96 * np.sqrt(0.15 * 0.85 / 400), abs=0.01) and 0.15 < high < 0.2
    assert (found['only_a_right'], found['only_b_right']) == (60, 0)


def test_seeds_that_read_the_same_texts_add_no_texts():
    """Five copies of two runs say what one copy says; counted as five times the texts, luck would become significance."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    a, b = (np.where(rng.random((60, 1)) < share, y[:, None], rng.integers(0, 3, (60, 1))) for share in (0.8, 0.7))
    one, five = compare(y, a, b, 3), compare(y, a.repeat(5, axis=1), b.repeat(5, axis=1), 3)
    for name in ('accuracy', 'macro_f1'):
        assert five[name]['difference'] == pytest.approx(one[name]['difference']) and five[name]['ci'] == one[name]['ci']
    assert 'mcnemar_p' in one and 'mcnemar_p' not in five
    mixed = compare(y, np.column_stack((a, b)), b, 3)  # of two seeds one is the other side itself: half of the difference
    assert mixed['accuracy']['difference'] == pytest.approx(one['accuracy']['difference'] / 2)


def test_many_labels_take_no_room():
    """Tables of 300 labels drawn 2,000 times at once, or of all triples, would want gigabytes."""
    import tracemalloc

    rng = np.random.default_rng(0)
    y, logits = rng.integers(0, 300, 3000), rng.normal(size=(3000, 300))
    logits[np.arange(3000), y] += 3
    tracemalloc.start()
    low, high = metrics(logits, y, [*map(str, range(300))])['macro_f1_ci']
    found = compare(y[:300], logits[:300].argmax(1)[:, None], y[:300, None], 300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low < high and found['accuracy']['difference'] < 0 and peak < 80e6


def test_ece_worked_by_hand():
    """
    confidence .9 .9 .9 .9, three right: |3.6 - 3| / 4 = .15. In two bins of two, (.6 .6, one right) and (.9 .9, both right):
    (|1.2 - 1| + |1.8 - 2|) / 4 = .1
    """
    p = np.array([[0.9, 0.1]] * 4)
    assert ece(p, np.array([0, 0, 0, 1]), bins=1) == pytest.approx(0.15)
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9]])
    assert ece(p, np.array([0, 0, 0, 1]), bins=2) == pytest.approx(0.1)
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(size=(50_000, 3)) * 2)
    y = (p.cumsum(1) > rng.random((50_000, 1))).argmax(1)  # drawn from p itself: calibrated
    assert ece(p, y) < 0.01


def test_temperature_is_found_and_changes_no_prediction():
    """Logits twice as sure as they should be want T = 2; the minimum is scipy's; all right, or one row, stays in bounds."""
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(0)
    z = rng.normal(size=(40_000, 3)) * 2
    y = (softmax(z).cumsum(1) > rng.random((40_000, 1))).argmax(1)
    T = fit_temperature(2 * z, y)
    assert T == pytest.approx(2, abs=0.05)
    few = (2 * z[:200], y[:200])
    nll = lambda t: metrics(few[0] / t, few[1], list('abc'))['nll']  # noqa: E731
    assert fit_temperature(*few) == pytest.approx(minimize_scalar(nll, bounds=(0.25, 20), method='bounded').x, abs=1e-3)
    assert fit_temperature(np.eye(3), np.arange(3)) == pytest.approx(0.25)
    assert fit_temperature(np.eye(3), np.array([1, 2, 0])) == pytest.approx(20)


# -----------------------------------------------------------------------------
# words alone


def cut_sentences(n, seed=0):
    rng = np.random.default_rng(seed)
    cues = (['good', 'fine', 'lovely'], ['bad', 'awful', 'late'], ['odd', 'moon', 'banana'])
    words, texts, labels = [f'word{i}' for i in range(200)], [], []
    for _ in range(n):
        label = int(rng.choice(3, p=(0.6, 0.3, 0.1)))
        some = [*rng.choice(words, 12), *rng.choice(cues[label], 1 + (rng.random() < 0.6)), *rng.choice(cues[label - 1], 1)]
        rng.shuffle(some)
        texts.append(' '.join(some))
        labels.append(label)
    return texts, np.array(labels)


@pytest.mark.parametrize('n_class', [2, 3])
def test_bag_of_words_is_scikit_learns(n_class):
    """The baseline is worth nothing if it is a weak one: the very decisions of a TfidfVectorizer and a balanced regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    (texts, y), (new, z) = cut_sentences(600), cut_sentences(300, seed=1)
    y, z = np.minimum(y, n_class - 1), np.minimum(z, n_class - 1)
    predict, words = fit(texts, y, n_class)
    theirs = TfidfVectorizer(ngram_range=(1, 2))
    regression = LogisticRegression(class_weight='balanced', max_iter=1000, tol=1e-6).fit(theirs.fit_transform(texts), y)
    p = regression.predict_proba(theirs.transform(new))
    np.testing.assert_allclose(softmax(predict(new)), p, atol=5e-3)
    assert (predict(new).argmax(1) == z).mean() > 0.5 and 'lovely' in words and not any(' ' in word for word in words)
    assert np.isfinite(predict(['', 'unheardof'])).all()


REAL = os.environ.get('NANOSENTIMENT_RAW')


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason='real data: NANOSENTIMENT_RAW is not set')
@pytest.mark.parametrize('name', ['customer_service', 'sst2'])
def test_bag_of_words_on_the_real_data(name):
    """Within 1.5 points of scikit-learn: five folds of customer_service, SST-2's dev from a third of its training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from prepare import DATASETS, find_raw, read_rows

    paths, (text, label) = find_raw(name, ''), DATASETS[name]['columns']
    rows = {split: [row for _, row, reason in read_rows(path) if not reason] for split, path in paths.items()}
    texts = {split: [row[text] for row in some] for split, some in rows.items()}
    names = sorted({row[label] for row in rows['train']})
    y = {split: np.array([names.index(row[label]) for row in some]) for split, some in rows.items()}
    if name == 'sst2':
        parts = [(texts['train'][::3], y['train'][::3], texts['test'], y['test'])]
    else:
        fold = np.arange(len(y['train'])) % 5
        some = [(fold != k, fold == k) for k in range(5)]
        pick = lambda mask: [x for x, yes in zip(texts['train'], mask) if yes]  # noqa: E731
        parts = [(pick(a), y['train'][a], pick(b), y['train'][b]) for a, b in some]
    ours, theirs = [], []
    for train, labels, new, truth in parts:
        words = TfidfVectorizer(ngram_range=(1, 2))
        regression = LogisticRegression(class_weight='balanced', max_iter=1000).fit(words.fit_transform(train), labels)
        theirs.append(regression.predict(words.transform(new)) == truth)
        ours.append(fit(train, labels, len(names))[0](new).argmax(1) == truth)
    ours, theirs = np.concatenate(ours).mean(), np.concatenate(theirs).mean()
    print(f'{name}: ours {ours:.4f}, scikit-learn {theirs:.4f}')
    assert abs(ours - theirs) < 0.015


@pytest.mark.parametrize(
    'text, expected',
    [
        ('it is not bad , but long', 'negation contrast'),
        ("I don't care", 'negation no_cue'),
        ('ca n’t lose', 'negation no_cue'),
        ('good actors , awful story', 'mixed'),
        ('good zyzzyva', 'rare'),
        ('nothingness', 'rare no_cue'),
        ('', 'no_cue'),
    ],
)
def test_tags_follow_their_rules(text, expected):
    known = set('it is not bad but long don care ca lose good actors awful story lovely'.split())
    assert tags(text, known=known) == expected.split()
    assert 'long' in tags(text, truncated=True)
