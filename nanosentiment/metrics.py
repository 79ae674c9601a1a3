"""
What is computed from predictions: scores, how sure one can be of them, and calibration.

Pure numpy: nothing here prints, reads or writes. Most functions work on confusion tables, K x K
counts with the true label as row and the predicted label as column. A table counts at least one
text. The functions accept a stack of tables (..., K, K) too, because the bootstrap scores
thousands of tables at once.
"""

import math

import numpy as np

# -----------------------------------------------------------------------------
# probabilities


def softmax(logits):
    """(n, K) logits -> (n, K) probabilities, float64."""
    # the largest logit is subtracted so that exp() cannot overflow
    shifted = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(shifted, dtype=np.float64)
    return e / e.sum(axis=1, keepdims=True)


def negative_log_likelihood(probabilities, targets):
    """Probabilities (n, K) and true labels (n,) -> -ln of the true label's probability, (n,)."""
    true_probability = probabilities[np.arange(len(targets)), targets]
    # a probability may be rounded to 0, whose logarithm is infinite
    return -np.log(np.maximum(true_probability, 1e-300))


# -----------------------------------------------------------------------------
# scores of a confusion table


def confusion(targets, predictions, n_class):
    """
    True and predicted labels (n,) -> (n_class, n_class) counts, row = truth, column = prediction.

    Example: truth [0, 0, 1, 2], predicted [0, 1, 1, 1] -> [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    """
    targets = np.asarray(targets, dtype=np.int64)
    predictions = np.asarray(predictions, dtype=np.int64)
    cells = targets * n_class + predictions
    return np.bincount(cells, minlength=n_class * n_class).reshape(n_class, n_class)


def precision_recall_f1(table):
    """
    Confusion tables (..., K, K) -> precision, recall and F1 of each label, (..., K) each.

    What would be 0/0 is 0, as in scikit-learn with zero_division=0.
    Example: [[1, 1, 0], [0, 1, 0], [0, 1, 0]] -> [1, 1/3, 0], [1/2, 1, 0], [2/3, 1/2, 0]
    """
    hits = np.diagonal(table, axis1=-2, axis2=-1).astype(float)
    n_predicted = table.sum(axis=-2)
    n_true = table.sum(axis=-1)
    precision = hits / np.maximum(n_predicted, 1)
    recall = hits / np.maximum(n_true, 1)
    f1 = 2 * hits / np.maximum(n_predicted + n_true, 1)
    return precision, recall, f1


def accuracy(table):
    """Confusion tables (..., K, K) -> (...) the share of predictions that are right."""
    hits = np.trace(table, axis1=-2, axis2=-1)
    return hits / table.sum(axis=(-2, -1))


def macro_f1(table):
    """Confusion tables (..., K, K) -> (...) mean F1 over the labels in truth or predictions."""
    f1 = precision_recall_f1(table)[2]
    n_predicted = table.sum(axis=-2)
    n_true = table.sum(axis=-1)
    is_present = n_predicted + n_true > 0
    n_present = is_present.sum(axis=-1)
    return (f1 * is_present).sum(axis=-1) / n_present


# A new metric is a function of confusion tables (..., K, K) -> (...) and an entry here: score()
# and compare() below, train.py's choice of the best checkpoint and the evaluation read this dict.
METRICS = {'accuracy': accuracy, 'macro_f1': macro_f1}

# how a metric is printed, where that is not its name in METRICS
PRINTED_NAMES = {'macro_f1': 'macro-F1'}


def printed_name(name):
    """'macro_f1' -> 'macro-F1'; a name that is not in PRINTED_NAMES is printed as it is."""
    return PRINTED_NAMES.get(name, name)


def format_metric(name, value):
    """'macro_f1', 0.7333 -> 'macro-F1 0.733'"""
    return f'{printed_name(name)} {value:.3f}'


def per_class(table, labels):
    """A table (K, K) and K label names -> {label: its precision, recall, f1 and support}."""
    precision, recall, f1 = precision_recall_f1(table)
    support = table.sum(axis=1)
    scores = {}
    for i, label in enumerate(labels):
        scores[label] = {
            'precision': float(precision[i]),
            'recall': float(recall[i]),
            'f1': float(f1[i]),
            'support': int(support[i]),
        }
    return scores


def score(logits, targets, labels):
    """
    Logits (n, K), true labels (n,) and label names -> a dict of plain numbers, ready for JSON.

    The first K labels are those of the logits. Labels after them are unknown to the model, because
    only the test data has them: their texts always count as wrong answers, and have no part in
    'nll' and 'balanced_nll'. At least one text has a known label.

    The dict holds every metric of METRICS. 'macro_f1_ci' is a bootstrap, so each call draws up to
    2,000 tables (see `redraw`). 'nll' is the mean negative log likelihood in nats, without class
    weights; 'balanced_nll' first averages it within each label, then over the labels.
    """
    n, n_known = logits.shape
    targets = np.asarray(targets, dtype=np.int64)
    is_known = targets < n_known
    assert is_known.any(), 'no text to score has a known label'
    table = confusion(targets, logits.argmax(axis=1), len(labels))

    scores = {'n': n}
    for name, metric in METRICS.items():
        scores[name] = float(metric(table))
        if name == 'accuracy':
            scores['accuracy_ci'] = share_ci(int(np.trace(table)), n)
        elif name == 'macro_f1':
            scores['macro_f1_ci'] = macro_f1_ci(table)

    known_targets = targets[is_known]
    nll = negative_log_likelihood(softmax(logits[is_known]), known_targets)
    nll_of_labels = [nll[known_targets == label].mean() for label in np.unique(known_targets)]
    scores['nll'] = float(nll.mean())
    scores['balanced_nll'] = float(np.mean(nll_of_labels))

    scores['per_class'] = per_class(table, labels)
    scores['confusion'] = table.tolist()
    return scores


# -----------------------------------------------------------------------------
# how sure one can be of a score


def redraw(counts):
    """
    An array of counts -> blocks (draws, *counts.shape) of counts of as many rows, drawn anew.

    This is the bootstrap: rows are drawn with replacement (Efron 1979,
    https://doi.org/10.1214/aos/1176344552). How often each kind of row is drawn follows a
    multinomial distribution, so no single row is touched. There are 2,000 draws in all, fewer for
    very large tables, and each block is small enough for any memory.
    """
    rng = np.random.default_rng(0)
    n = counts.sum()
    # only what occurs can be drawn, and a table of many labels is mostly zeros
    occupied = np.flatnonzero(counts)
    probabilities = counts.ravel()[occupied] / n

    n_draws = min(2000, max(100, 20_000_000 // counts.size))
    block_size = max(1, 1_000_000 // counts.size)
    for start in range(0, n_draws, block_size):
        size = min(block_size, n_draws - start)
        block = np.zeros((size, counts.size), dtype=np.int64)
        block[:, occupied] = rng.multinomial(n, probabilities, size)
        yield block.reshape(size, *counts.shape)


def interval(values):
    """Values, for example one score per bootstrap draw -> [low, high] of their middle 95 %."""
    low, high = np.percentile(values, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def macro_f1_ci(table):
    """A confusion table (K, K) -> [low, high], the bootstrap's 95 % interval of macro-F1."""
    scores = [macro_f1(tables) for tables in redraw(table)]
    return interval(np.concatenate(scores))


def wilson(hits, n, z=1.959964):
    """
    The 95 % interval (low, high) of the share hits / n, fit for few rows too (Wilson 1927,
    https://doi.org/10.1080/01621459.1927.10502953). It is (0, 1) if n is 0.

    Example: wilson(21, 30) -> (0.521, 0.833). On 30 rows, an accuracy of 70 % says little.
    """
    if n == 0:
        return 0.0, 1.0
    p = hits / n
    center = p + z * z / (2 * n)
    half_width = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low = (center - half_width) / (1 + z * z / n)
    high = (center + half_width) / (1 + z * z / n)
    # rounding could leave p = 0 or p = 1 outside by 1e-16, and a plot refuses a negative error bar
    return min(p, max(0.0, low)), max(p, min(1.0, high))


def share_ci(hits, n):
    """[low, high], the interval of `wilson` rounded to 4 digits, as the files hold it."""
    low, high = wilson(hits, n)
    return [round(low, 4), round(high, 4)]


# -----------------------------------------------------------------------------
# calibration: is a text that gets 80 % right in 80 % of the cases?


def equal_mass_bins(confidence, n_bins):
    """Confidences (n,) -> the texts' numbers in n_bins groups of equal size, least sure first."""
    order = np.argsort(confidence, kind='stable')
    return np.array_split(order, min(n_bins, len(confidence)))


def calibration_error(confidence, is_right, n_bins=15):
    """Confidences (n,) and which predictions are right (n,) -> the error that ece() explains."""
    # in numbers of texts, so that a bin with one text more counts for more
    error = 0.0
    for texts in equal_mass_bins(confidence, n_bins):
        error += abs(confidence[texts].sum() - is_right[texts].sum())
    return float(error / len(confidence))


def ece(probabilities, targets, bins=15):
    """
    Expected calibration error of probabilities (n, K) for true labels (n,).

    It is |mean confidence - share right|, averaged over bins of equally many texts
    (https://arxiv.org/abs/1706.04599; equal mass: https://arxiv.org/abs/1904.01685).
    Few texts per bin make it large by chance.
    Example: one bin of 4 texts, each with confidence 0.9, 3 of them right -> 0.15
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == targets
    return calibration_error(confidence, is_right, bins)


def reliability_bins(confidence, is_right, n_bins=15):
    """
    Confidences (n,) and which predictions are right (n,) -> of each bin of equally many texts its
    mean confidence, its share right and its number of texts, (bins,) each.
    """
    bins = equal_mass_bins(confidence, n_bins)
    mean_confidence = np.array([confidence[texts].mean() for texts in bins])
    share_right = np.array([is_right[texts].mean() for texts in bins])
    sizes = np.array([len(texts) for texts in bins])
    return mean_confidence, share_right, sizes


def fit_temperature(logits, targets):
    """
    Logits (n, K) and true labels (n,) -> the temperature T, between 1/4 and 20, with which
    softmax(logits / T) has the least NLL. It changes no prediction.
    (https://arxiv.org/abs/1706.04599)
    """
    z = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    mean_true_logit = z[np.arange(len(z)), targets].mean()
    # bisection over the inverse temperature 1/T: the slope of the NLL, which is the expected logit
    # minus the true logit, only grows with it
    low, high = 1 / 20, 4.0
    for _ in range(50):
        inverse_temperature = (low + high) / 2
        expected_logit = (softmax(z * inverse_temperature) * z).sum(axis=1).mean()
        if expected_logit < mean_true_logit:
            low = inverse_temperature
        else:
            high = inverse_temperature
    return 1 / inverse_temperature


# -----------------------------------------------------------------------------
# comparison: is one classifier better than another?


def mcnemar(n_only_a, n_only_b):
    """
    The p value of McNemar's exact two-sided test that two classifiers are equally good
    (McNemar 1947, https://doi.org/10.1007/BF02295996).

    n_only_a is the number of rows that only a has right, n_only_b the same for b.
    Example: mcnemar(2, 8) -> 2 * (1 + 10 + 45) / 1024 = 0.109
    """
    n = n_only_a + n_only_b
    probability = 0.0
    for k in range(min(n_only_a, n_only_b) + 1):
        # in logarithms, because the binomial coefficients of a few thousand rows overflow
        log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        probability += math.exp(log_ways - n * math.log(2))
    return min(1.0, 2 * probability)


def mean_difference(rows, counts, n_class, n_runs_a):
    """
    How much better side a is than side b, in each metric of METRICS: (n_metrics,).

    rows (m, 1 + runs) are the distinct combinations of true label and predictions, a's runs
    first; counts (m,) says how many texts have each combination.
    """
    targets = rows[:, 0]
    scores = []  # of each run
    for predictions in rows[:, 1:].T:
        cells = targets * n_class + predictions
        table = np.bincount(cells, counts, n_class * n_class).reshape(n_class, n_class)
        scores.append([metric(table) for metric in METRICS.values()])
    mean_a = np.mean(scores[:n_runs_a], axis=0)
    mean_b = np.mean(scores[n_runs_a:], axis=0)
    return mean_a - mean_b


def compare(targets, predictions_a, predictions_b, n_class):
    """
    True labels (n,) and the predictions of two sides, a and b, for the same texts, (n, runs) each
    -> how much better the mean of a's runs is in each metric of METRICS, with the 95 % interval.

    The interval is a paired bootstrap over texts: a text is drawn with everything that was
    predicted for it, because five seeds that read the same 30 texts have not read 150 texts.
    If each side is a single run, the result also holds McNemar's test.
    """
    rows = np.column_stack((targets, predictions_a, predictions_b))
    rows, counts = np.unique(rows, axis=0, return_counts=True)
    n_runs_a = predictions_a.shape[1]
    differences = mean_difference(rows, counts, n_class, n_runs_a)
    drawn_differences = []
    for block in redraw(counts):
        for drawn_counts in block:
            drawn = mean_difference(rows, drawn_counts, n_class, n_runs_a)
            drawn_differences.append(drawn)
    drawn_differences = np.array(drawn_differences)  # (draws, n_metrics)

    comparison = {'n': len(targets)}
    for i, name in enumerate(METRICS):
        difference = float(differences[i])
        comparison[name] = {'difference': difference, 'ci': interval(drawn_differences[:, i])}
    if n_runs_a == 1 and predictions_b.shape[1] == 1:
        a_is_right = predictions_a[:, 0] == targets
        b_is_right = predictions_b[:, 0] == targets
        n_only_a = int((a_is_right & ~b_is_right).sum())
        n_only_b = int((b_is_right & ~a_is_right).sum())
        comparison['only_a_right'] = n_only_a
        comparison['only_b_right'] = n_only_b
        comparison['mcnemar_p'] = mcnemar(n_only_a, n_only_b)
    return comparison


# -----------------------------------------------------------------------------
# columns: what goes with being right, or with the label


def length_bins(lengths, is_right, n_bins=None):
    """
    Lengths in tokens (n,) and which predictions are right (n,) -> a list of (shortest, longest,
    number of texts, number right), one for each bin between quantiles of the length.

    n_bins is at most 8, with 20 texts or more in each, unless it is given. Texts of one length stay
    together, and no bin is empty, so there may be fewer.
    """
    if n_bins is None:
        n_bins = max(1, min(8, len(lengths) // 20))
    quantiles = np.linspace(0, 1, n_bins + 1)[1:]
    longest = np.unique(np.quantile(lengths, quantiles, method='inverted_cdf'))
    bin_of_text = np.searchsorted(longest, lengths)
    bins = []
    for i in range(len(longest)):
        in_bin = bin_of_text == i
        shortest = int(lengths[in_bin].min())
        n_texts = int(in_bin.sum())
        n_right = int(is_right[in_bin].sum())
        bins.append((shortest, int(longest[i]), n_texts, n_right))
    return bins


def chi2_p_value(chi2, df):
    """
    The probability that a chi-square variable with df degrees of freedom exceeds chi2.

    For a whole df the tail has a closed form, a sum of df / 2 terms
    (Abramowitz and Stegun 26.4.4 and 26.4.5, https://personal.math.ubc.ca/~cbm/aands/page_941.htm).
    """
    if chi2 <= 0 or df == 0:
        return 1.0
    half = chi2 / 2
    if df % 2 == 0:
        tail = 0.0
        powers = range(df // 2)  # 0, 1, 2, ...
    else:
        tail = math.erfc(math.sqrt(half))
        powers = [i + 0.5 for i in range(df // 2)]  # 1/2, 3/2, 5/2, ...
    for power in powers:
        # exp(-half) * half ** power / Gamma(power + 1), in logarithms because both may overflow
        tail += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(1.0, tail)


def describe_column(counts):
    """
    A Counter of (value, label) for one column of a raw file -> does the column go with the label?

    'missing' counts empty values, 'distinct' the different values (None: too many to count).
    'guess' is the share of rows whose label is the commonest among the other rows of their value:
    what guessing from this column alone would reach, 0 for an id. 'chi2', 'df' and 'p' are
    Pearson's chi-square test, for 2 to 50 values.
    Example: {(a, x): 10, (a, y): 20, (b, x): 20, (b, y): 10} -> guess 2/3, chi2 6.667, p 0.0098
    """
    values = list(dict.fromkeys(value for value, _ in counts))
    labels = list(dict.fromkeys(label for _, label in counts))
    report = {'missing': 0, 'distinct': None}
    for (value, _), n in counts.items():
        if not value:
            report['missing'] += n
    # prepare.py stops counting at 1000 combinations
    if len(counts) >= 1000:
        return report
    report['distinct'] = len(values)

    table = np.zeros((len(values), len(labels)))
    for (value, label), n in counts.items():
        table[values.index(value), labels.index(label)] = n

    # A row must not vote for its own label. Where that label is the commonest even without the
    # row, the guess is right; where it then ties with others, one of them is guessed at random.
    # The column of zeros gives a second place even if there is only one label.
    no_label = np.zeros(len(values))
    ranked = np.sort(np.column_stack((table, no_label)), axis=1)
    first = ranked[:, -1]
    second = ranked[:, -2]
    n_tied = 1 + (table == second[:, None]).sum(axis=1)
    probability_right = (first - 1 > second) + (first - 1 == second) / n_tied
    is_repeated = first > 1
    n_right = (first * probability_right)[is_repeated].sum()
    report['guess'] = float(n_right / table.sum())

    if 2 <= len(values) <= 50:
        # what each cell would hold if the label did not depend on the value
        n_of_value = table.sum(axis=1, keepdims=True)
        n_of_label = table.sum(axis=0)
        expected = n_of_value * n_of_label / table.sum()
        chi2 = ((table - expected) ** 2 / expected).sum()
        df = (len(values) - 1) * (len(labels) - 1)
        report['chi2'] = float(chi2)
        report['df'] = df
        report['p'] = chi2_p_value(float(chi2), df)
    return report
