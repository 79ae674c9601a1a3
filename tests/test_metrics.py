"""The numbers by which everything else is judged. python -m pytest tests/test_metrics.py"""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from nanosentiment import metrics
from nanosentiment.metrics import (
    accuracy,
    calibration_error,
    chi2_p_value,
    compare,
    confusion,
    describe_column,
    ece,
    fit_temperature,
    interval,
    length_bins,
    macro_f1,
    macro_f1_ci,
    mcnemar,
    precision_recall_f1,
    reliability_bins,
    score,
    share_ci,
    softmax,
    wilson,
)

# -----------------------------------------------------------------------------
# scores


def test_confusion_and_f1_worked_by_hand():
    """
    truth      0 0 1 2      label 0: 1 of 2 found, 1 of 1 correct   precision 1    recall 1/2
    predicted  0 1 1 1      label 1: 1 of 1 found, 1 of 3 correct   precision 1/3  recall 1
                            label 2: never predicted                precision 0    recall 0
    """
    table = confusion([0, 0, 1, 2], [0, 1, 1, 1], 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    precision, recall, f1 = precision_recall_f1(table)
    np.testing.assert_allclose(precision, [1, 1 / 3, 0])
    np.testing.assert_allclose(recall, [1 / 2, 1, 0])
    np.testing.assert_allclose(f1, [2 / 3, 1 / 2, 0])
    assert accuracy(table) == 1 / 2


def test_a_metric_of_a_stack_of_tables_is_that_of_each_table():
    """The bootstrap scores thousands of tables in one call."""
    tables = np.random.default_rng(0).integers(0, 4, (20, 3, 3))
    for metric in metrics.METRICS.values():
        expected = [metric(table) for table in tables]
        assert metric(tables).tolist() == expected


def random_predictions(n, n_class, n_predicted):
    """Logits and targets; labels from n_predicted on are never predicted."""
    rng = np.random.default_rng(n + n_class)
    targets = rng.integers(0, n_class, n)
    logits = rng.normal(size=(n, n_class)).astype(np.float32)
    logits[:, n_predicted:] = -9
    return logits, targets


@pytest.mark.parametrize(
    'n, n_class, n_predicted', [(200, 3, 3), (200, 5, 3), (1, 2, 2), (40, 3, 1), (7, 4, 4)]
)
def test_scores_are_those_of_scikit_learn(n, n_class, n_predicted):
    """Also with a single row, a label that is never predicted, a label that does not occur."""
    sk = pytest.importorskip('sklearn.metrics')
    logits, targets = random_predictions(n, n_class, n_predicted)
    if n == 7:
        targets[:] = 0
    labels = [f'label {i}' for i in range(n_class)]
    numbers = range(n_class)
    predictions = logits.argmax(axis=1)

    scores = score(logits, targets, labels)

    assert scores['accuracy'] == sk.accuracy_score(targets, predictions)
    expected = sk.f1_score(targets, predictions, average='macro')
    assert scores['macro_f1'] == pytest.approx(expected)
    expected = sk.log_loss(targets, softmax(logits), labels=numbers)
    assert scores['nll'] == pytest.approx(expected, rel=1e-5)
    expected = sk.confusion_matrix(targets, predictions, labels=numbers)
    assert scores['confusion'] == expected.tolist()
    columns = sk.precision_recall_fscore_support(
        targets, predictions, labels=numbers, zero_division=0
    )
    for i, label in enumerate(labels):
        expected = [column[i] for column in columns]
        assert list(scores['per_class'][label].values()) == pytest.approx(expected)


def test_the_balanced_nll_weighs_each_label_alike():
    """It is scikit-learn's log loss with balanced weights; the label 3 occurs nowhere."""
    sk = pytest.importorskip('sklearn.metrics')
    from sklearn.utils.class_weight import compute_sample_weight

    logits = np.random.default_rng(0).normal(size=(50, 4))
    targets = np.array([0] * 40 + [1] * 8 + [2] * 2)
    weights = compute_sample_weight('balanced', targets)
    expected = sk.log_loss(targets, softmax(logits), sample_weight=weights, labels=range(4))
    scores = score(logits, targets, ['a', 'b', 'c', 'd'])
    assert scores['balanced_nll'] == pytest.approx(expected)


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32)
    scores = score(logits, [0, 0], ['a', 'b'])
    assert np.isfinite(scores['nll'])
    assert scores['accuracy'] == 0.5


def test_a_label_unknown_to_the_model_counts_as_wrong():
    """
    truth      a b b c c    c is unknown; a: 1 of 1 found, 1 of 2 correct    F1 2/3
    predicted  a b b a b                  b: 2 of 2 found, 2 of 3 correct    F1 4/5
                                          c: 0 of 2 found                    F1 0
    Leaving the texts of c out would turn 3 right answers of 5 into 3 of 3.
    """
    logits = np.array([[2, 0], [0, 2], [0, 2], [2, 0], [0, 2]], dtype=np.float32)

    scores = score(logits, [0, 1, 1, 2, 2], ['a', 'b', 'c'])

    assert scores['n'] == 5
    assert scores['accuracy'] == 3 / 5
    assert scores['accuracy_ci'] == share_ci(3, 5)
    assert scores['macro_f1'] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert scores['confusion'] == [[1, 0, 0], [0, 2, 0], [1, 1, 0]]
    assert scores['per_class']['c'] == {'precision': 0, 'recall': 0, 'f1': 0, 'support': 2}


def test_the_nll_is_that_of_the_texts_whose_label_is_known():
    """The model gives the others no probability, so that they would make it infinite."""
    logits, targets = random_predictions(50, 3, 3)
    known_scores = score(logits, targets, ['a', 'b', 'c'])
    more_logits = np.concatenate([logits, logits[:7]])
    more_targets = np.concatenate([targets, [3] * 4, [4] * 3])

    scores = score(more_logits, more_targets, ['a', 'b', 'c', 'd', 'e'])

    assert scores['nll'] == known_scores['nll']
    assert scores['balanced_nll'] == known_scores['balanced_nll']
    assert scores['accuracy'] < known_scores['accuracy']


def test_a_score_needs_a_text_with_a_known_label():
    """Without one there is no loss, and the label column was probably the wrong one."""
    with pytest.raises(AssertionError, match='no text to score'):
        score(np.zeros((2, 2)), [2, 2], ['a', 'b', 'c'])


def cohens_kappa(table):
    """(..., K, K) -> (...) agreement beyond chance."""
    n = table.sum(axis=(-2, -1))
    by_chance = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1) / n**2
    return (accuracy(table) - by_chance) / (1 - by_chance)


def test_a_new_metric_is_one_entry_in_one_dict(monkeypatch):
    """Cohen's kappa becomes part of the scores and of the comparison of two runs."""
    sk = pytest.importorskip('sklearn.metrics')
    monkeypatch.setitem(metrics.METRICS, 'kappa', cohens_kappa)
    logits, targets = random_predictions(200, 3, 3)
    predictions = logits.argmax(axis=1)

    scores = score(logits, targets, ['a', 'b', 'c'])
    comparison = compare(targets, targets[:, None], predictions[:, None], 3)

    expected = sk.cohen_kappa_score(targets, predictions)
    assert scores['kappa'] == pytest.approx(expected)
    assert comparison['kappa']['difference'] == pytest.approx(1 - expected)
    low, high = comparison['kappa']['ci']
    assert low < 1 - expected < high
    assert list(comparison)[:4] == ['n', 'accuracy', 'macro_f1', 'kappa']


# -----------------------------------------------------------------------------
# confidence intervals and tests


def test_wilson_is_the_published_interval():
    """Newcombe 1998, table I (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E)."""  # noqa: E501
    published = [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 1 - 0.1611, 1),
    ]
    for hits, n, low, high in published:
        assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0, 0) == (0, 1)
    assert share_ci(1, 29) == [0.0061, 0.1718]


def test_wilson_contains_the_share():
    """24 of 24 had an upper end of 1 - 1e-16, and matplotlib takes no error bar below zero."""
    for n in range(1, 300):
        for hits in (0, n):
            low, high = wilson(hits, n)
            assert low <= hits / n <= high


def test_the_bootstrap_of_the_table_is_that_of_the_rows():
    """Drawing counts stands for drawing rows: the same interval, up to the luck of the draw."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 300)
    predictions = np.where(rng.random(300) < 0.7, targets, rng.integers(0, 3, 300))
    drawn_scores = []
    for _ in range(2000):
        rows = rng.integers(0, 300, 300)
        table = confusion(targets[rows], predictions[rows], 3)
        drawn_scores.append(float(macro_f1(table)))
    found = macro_f1_ci(confusion(targets, predictions, 3))
    assert found == pytest.approx(interval(drawn_scores), abs=0.01)


def test_mcnemar_is_the_binomial_test():
    stats = pytest.importorskip('scipy.stats')
    for n_only_a, n_only_b in [(1, 0), (2, 8), (5, 5), (30, 55), (700, 800)]:
        expected = stats.binomtest(n_only_a, n_only_a + n_only_b).pvalue
        assert mcnemar(n_only_a, n_only_b) == pytest.approx(expected)
        assert mcnemar(n_only_b, n_only_a) == pytest.approx(expected)
    assert mcnemar(2, 8) == pytest.approx(112 / 1024)  # the example in its docstring
    assert mcnemar(0, 0) == 1


def test_a_run_does_not_differ_from_itself():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 400)
    a = np.where(rng.random((400, 1)) < 0.8, targets[:, None], 1 - targets[:, None])
    comparison = compare(targets, a, a, 2)
    assert comparison['accuracy'] == {'difference': 0, 'ci': [0, 0]}
    assert comparison['mcnemar_p'] == 1


def test_comparing_finds_a_difference_and_its_interval():
    """b has 60 of 400 texts wrong that a has right: 15 points, with the interval of a share."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 400)
    a = np.where(rng.random(400) < 0.8, targets, 1 - targets)
    b = a.copy()
    worse = np.flatnonzero(a == targets)[:60]
    b[worse] = 1 - targets[worse]

    comparison = compare(targets, a[:, None], b[:, None], 2)

    assert comparison['accuracy']['difference'] == pytest.approx(0.15)
    low, high = comparison['accuracy']['ci']
    half_width = 1.96 * np.sqrt(0.15 * 0.85 / 400)
    assert (low, high) == pytest.approx((0.15 - half_width, 0.15 + half_width), abs=0.01)
    assert (comparison['only_a_right'], comparison['only_b_right']) == (60, 0)
    assert comparison['mcnemar_p'] < 1e-9


def test_seeds_that_read_the_same_texts_add_no_texts():
    """
    Five copies of two runs say no more than one copy. Counted as five times the texts, luck
    would look like significance.
    """
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 60)
    noise = rng.integers(0, 3, (60, 2))
    a = np.where(rng.random((60, 1)) < 0.8, targets[:, None], noise[:, :1])
    b = np.where(rng.random((60, 1)) < 0.7, targets[:, None], noise[:, 1:])

    one = compare(targets, a, b, 3)
    five = compare(targets, a.repeat(5, axis=1), b.repeat(5, axis=1), 3)
    # of two seeds of a, one is b itself: half of the difference
    half = compare(targets, np.column_stack((a, b)), b, 3)

    for name in ('accuracy', 'macro_f1'):
        assert five[name]['difference'] == pytest.approx(one[name]['difference'])
        assert five[name]['ci'] == one[name]['ci']
        assert half[name]['difference'] == pytest.approx(one[name]['difference'] / 2)
    assert 'mcnemar_p' in one
    assert 'mcnemar_p' not in five


def test_many_labels_need_little_memory():
    """Tables of 300 labels, drawn 2,000 times at once, would need gigabytes."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 300, 3000)
    logits = rng.normal(size=(3000, 300))
    logits[np.arange(3000), targets] += 3
    labels = [str(i) for i in range(300)]
    predictions = logits.argmax(axis=1)

    tracemalloc.start()
    low, high = score(logits, targets, labels)['macro_f1_ci']
    comparison = compare(targets[:300], predictions[:300, None], targets[:300, None], 300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert low < high
    assert comparison['accuracy']['difference'] < 0
    assert peak < 80e6


# -----------------------------------------------------------------------------
# calibration


def test_ece_worked_by_hand():
    """
    One bin with confidence .9 .9 .9 .9, three right: |3.6 - 3| / 4 = .15. Two bins of two,
    .6 .6 with one right and .9 .9 with both: (|1.2 - 1| + |1.8 - 2|) / 4 = .1
    """
    probabilities = np.array([[0.9, 0.1]] * 4)
    assert ece(probabilities, np.array([0, 0, 0, 1]), bins=1) == pytest.approx(0.15)
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9]])
    assert ece(probabilities, np.array([0, 0, 0, 1]), bins=2) == pytest.approx(0.1)


def draw_labels(probabilities, rng):
    """Labels (n,) drawn from their probabilities (n, K), which are thus perfectly calibrated."""
    cumulative = probabilities.cumsum(axis=1)
    return (cumulative > rng.random((len(probabilities), 1))).argmax(axis=1)


def test_ece_of_calibrated_probabilities_is_small():
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(size=(50_000, 3)) * 2)
    targets = draw_labels(probabilities, rng)
    assert ece(probabilities, targets) < 0.01


@pytest.mark.parametrize('order', [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_reliability_bins_by_hand(order):
    """In ascending order .6 .7 | .8 .9 with 0 1 | 1 1 right. The texts' order must not matter."""
    confidence = np.array([0.9, 0.6, 0.8, 0.7])[order]
    is_right = np.array([1, 0, 1, 1])[order]
    mean_confidence, share_right, sizes = reliability_bins(confidence, is_right, 2)
    np.testing.assert_allclose(mean_confidence, [0.65, 0.85])
    np.testing.assert_allclose(share_right, [0.5, 1])
    assert sizes.tolist() == [2, 2]
    assert calibration_error(confidence, is_right, 2) == pytest.approx(0.15)


def test_reliability_bins_are_of_equal_size_and_never_empty():
    sizes = reliability_bins(np.linspace(0.5, 1, 872), np.ones(872))[2]
    assert len(sizes) == 15
    assert sizes.sum() == 872
    assert np.ptp(sizes) <= 1
    sizes = reliability_bins(np.array([0.9, 0.6]), np.array([1, 0]))[2]
    assert sizes.tolist() == [1, 1]


def test_temperature_of_overconfident_logits_is_found():
    """Calibrated logits times two want T = 2."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 3)) * 2
    targets = draw_labels(softmax(logits), rng)
    assert fit_temperature(2 * logits, targets) == pytest.approx(2, abs=0.05)


def test_temperature_has_the_least_nll():
    """The minimum is the one scipy finds; with all right or all wrong it stays in its bounds."""
    optimize = pytest.importorskip('scipy.optimize')
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 3)) * 4
    targets = draw_labels(softmax(logits / 2), rng)

    def nll(temperature):
        return score(logits / temperature, targets, ['a', 'b', 'c'])['nll']

    expected = optimize.minimize_scalar(nll, bounds=(0.25, 20), method='bounded').x
    assert fit_temperature(logits, targets) == pytest.approx(expected, abs=1e-3)
    assert fit_temperature(np.eye(3), np.arange(3)) == pytest.approx(0.25)
    assert fit_temperature(np.eye(3), np.array([1, 2, 0])) == pytest.approx(20)


# -----------------------------------------------------------------------------
# lengths and columns


def test_length_bins_by_hand():
    """Texts of one length stay together, so that there may be fewer bins."""
    lengths = np.array([3, 9, 3, 3, 7])
    is_right = np.array([1, 0, 1, 0, 1])
    assert length_bins(lengths, is_right, 2) == [(3, 3, 3, 2), (7, 9, 2, 1)]
    assert length_bins(np.array([4, 4]), np.array([1, 0])) == [(4, 4, 2, 1)]


def test_length_bins_lose_no_text():
    lengths = np.random.default_rng(0).integers(1, 500, 872)
    bins = length_bins(lengths, np.ones(872, int))
    assert len(bins) == 8
    assert sum(n_texts for _, _, n_texts, _ in bins) == 872
    for (_, longest, n_texts, _), (shortest, _, _, _) in zip(bins, bins[1:]):
        assert longest < shortest
        assert n_texts > 80


def test_the_chi_square_tail_is_scipys():
    stats = pytest.importorskip('scipy.stats')
    for df in range(1, 201):
        for chi2 in (1e-6, 0.1 * df, 0.7 * df, df, 1.3 * df, 3 * df, df + 300):
            expected = stats.chi2.sf(chi2, df)
            assert chi2_p_value(chi2, df) == pytest.approx(expected, rel=1e-10)
    assert chi2_p_value(0, 5) == 1


def test_a_column_is_described_by_hand():
    """The example of the docstring: of 30 rows with each value, 20 have its commonest label."""
    counts = Counter({('a', 'x'): 10, ('a', 'y'): 20, ('b', 'x'): 20, ('b', 'y'): 10})
    report = describe_column(counts)
    assert report['missing'] == 0
    assert report['distinct'] == 2
    assert report['guess'] == pytest.approx(2 / 3)
    assert report['chi2'] == pytest.approx(20 / 3)
    assert report['df'] == 1
    assert report['p'] == pytest.approx(0.0098, abs=5e-5)


def test_an_id_tells_nothing_about_the_label():
    """Every value occurs once, so that no other row has it."""
    counts = Counter({(f'id {i}', 'xy'[i % 2]): 1 for i in range(60)})
    report = describe_column(counts)
    assert report['guess'] == 0
    assert 'p' not in report


def test_the_guess_is_made_from_the_other_rows():
    """
    a: x twice and y twice. For each row the other rows of a have its label once and the other
    label twice, so the guess is always wrong. b: x three times, always right.
    """
    counts = Counter({('a', 'x'): 2, ('a', 'y'): 2, ('b', 'x'): 3, ('', 'y'): 1})
    report = describe_column(counts)
    assert report['guess'] == pytest.approx(3 / 8)
    assert report['missing'] == 1
