"""
What is counted of predictions, how sure one can be of it, how a temperature is found; what words alone can tell: the
bag-of-words baseline that a transformer has to beat, the tags of the error analysis; and how all that is shown and written.
"""

import json
import math
import os
import re
from collections import Counter

import numpy as np
import torch
from torch.nn import functional as F

# -----------------------------------------------------------------------------
# metrics


def softmax(logits):
    """(n, n_class) logits -> (n, n_class) probabilities, float64."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return e / e.sum(axis=1, keepdims=True)


def confusion(targets, predictions, n_class):
    """
    (n_class, n_class) counts, row = truth, column = prediction.
    Example: truth [0, 0, 1, 2], predicted [0, 1, 1, 1] -> [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    """
    pairs = np.asarray(targets, dtype=np.int64) * n_class + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=n_class * n_class).reshape(n_class, n_class)


def precision_recall_f1(table):
    """
    confusion tables (..., K, K) -> three arrays (..., K). What would be 0/0 is 0, as in scikit-learn's zero_division=0.
    Example: [[1, 1, 0], [0, 1, 0], [0, 1, 0]] -> precision [1, 1/3, 0], recall [1/2, 1, 0], F1 [2/3, 1/2, 0]
    """
    hits, predicted, true = np.diagonal(table, 0, -2, -1).astype(float), table.sum(axis=-2), table.sum(axis=-1)
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(true, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + true, 1)


def macro_f1(table):
    """confusion tables (..., K, K) -> (...,) mean F1 over the labels that occur as truth or prediction"""
    present = table.sum(axis=-2) + table.sum(axis=-1) > 0
    return (precision_recall_f1(table)[2] * present).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)


def redraw(table):
    """
    Counts (n in all) -> such tables of n rows drawn with replacement: the bootstrap, without touching a row (Efron 1979,
    https://doi.org/10.1214/aos/1176344552). 2,000 draws, fewer of very large tables, in blocks (draws, ...) that fit anywhere.
    """
    n, cells, rng = table.sum(), np.flatnonzero(table), np.random.default_rng(0)
    draws, most = min(2000, max(100, 2 * 10**7 // table.size)), max(1, 10**6 // table.size)
    for some in (min(most, draws - done) for done in range(0, draws, most)):
        tables = np.zeros((some, table.size), dtype=np.int64)
        tables[:, cells] = rng.multinomial(n, table.ravel()[cells] / n, some)
        yield tables.reshape(some, *table.shape)


def interval(values):
    """The middle 95 % of some values."""
    return [round(float(x), 4) for x in np.percentile(values, (2.5, 97.5))]


def macro_f1_ci(table):
    return interval(np.concatenate([macro_f1(tables) for tables in redraw(table)]))


def wilson(hits, n, z=1.959964):
    """
    The 95 % interval of a share, honest for few rows too (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).
    Example: wilson(21, 30) -> (0.521, 0.833): on 30 rows, 70 % says little
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, z * z
    middle, half = p + z2 / (2 * n), z * (p * (1 - p) / n + z2 / (4 * n * n)) ** 0.5
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))


def per_class(table, labels):
    """A confusion table (K, K), K label names -> {label: its precision, recall, f1, support}, plain numbers."""
    columns = zip(labels, *precision_recall_f1(table), table.sum(axis=1), strict=True)
    return {label: dict(precision=float(p), recall=float(r), f1=float(f), support=int(n)) for label, p, r, f, n in columns}


def metrics(logits, targets, labels):
    """
    logits (n, K), targets (n,), K label names -> a dict of plain numbers, ready for JSON. macro_f1 is the mean over the
    labels that occur as truth or prediction; nll is the mean negative log likelihood in nats, without class weights;
    balanced_nll is the mean over the labels of theirs.
    """
    n, K = logits.shape
    predictions, targets = logits.argmax(axis=1), np.asarray(targets, dtype=np.int64)
    table = confusion(targets, predictions, K)
    hits = int(np.trace(table))
    nll = -np.log(np.maximum(softmax(logits)[np.arange(n), targets], 1e-300))  # (n,)
    return {
        'n': n,
        'accuracy': hits / max(n, 1),
        'accuracy_ci': [round(x, 4) for x in wilson(hits, n)],
        'macro_f1': float(macro_f1(table)),
        'macro_f1_ci': macro_f1_ci(table) if n else [0.0, 1.0],
        'nll': float(nll.mean()) if n else 0.0,
        'balanced_nll': float(np.mean([nll[targets == k].mean() for k in np.unique(targets)])) if n else 0.0,
        'per_class': per_class(table, labels),
        'confusion': table.tolist(),
    }


def ece(p, targets, bins=15):
    """
    Expected calibration error: |confidence - share right|, averaged over bins of equally many texts. p (n, K), targets (n,).
    (https://arxiv.org/abs/1706.04599; equal mass: https://arxiv.org/abs/1904.01685)
    Example: 4 texts in one bin, each with confidence 0.9, 3 of them right -> 0.15. Few texts a bin make it large by chance
    """
    confidence, right = p.max(axis=1), p.argmax(axis=1) == targets
    parts = np.array_split(np.argsort(confidence, kind='stable'), min(bins, len(p)))
    return float(sum(abs(confidence[part].sum() - right[part].sum()) for part in parts) / len(p))


def fit_temperature(logits, targets):
    """
    logits (n, K), targets (n,) -> T with the least NLL of softmax(logits / T), between 1/4 and 20. No prediction changes
    (https://arxiv.org/abs/1706.04599). The slope of the NLL in 1/T only grows, so halving finds its zero.
    """
    z = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    low, high, true = 1 / 20, 4.0, z[np.arange(len(z)), targets].mean()
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (softmax(z * middle) * z).sum(axis=1).mean() < true else (low, middle)
    return 1 / middle


def imbalance(counts, how):
    """counts (n_class,) of the training split -> class weights that average 1 over its texts, and prior, for the loss"""
    counts = torch.tensor(counts, dtype=torch.float32).clamp(min=1)
    weight = {'balanced': 1 / counts, 'sqrt': counts.rsqrt()}.get(how)
    weight = None if weight is None else weight * counts.sum() / (weight * counts).sum()
    return weight, (counts / counts.sum()).log() if how == 'logit' else None


def mcnemar(only_a, only_b):
    """
    p of the exact two-sided test that two classifiers, each alone right on so many of the same rows, are equally good
    (McNemar 1947, https://doi.org/10.1007/BF02295996). Example: mcnemar(2, 8) -> 2 * (1 + 10 + 45) / 1024 = 0.109
    """
    n, log = only_a + only_b, math.lgamma
    ways = (log(n + 1) - log(k + 1) - log(n - k + 1) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * sum(math.exp(way - n * math.log(2)) for way in ways))


def compare(targets, a, b, K):
    """
    True labels (n,) and what the runs of two sides predict of the same texts, (n, runs) each -> how much better a is, in the
    mean over its runs, and 95 %: texts are drawn anew, each with all that was predicted of it, since five seeds that read 30
    texts have not read 150 (paired bootstrap). Of single runs also McNemar's p.
    """
    rows, counts = np.unique(np.column_stack((targets, a, b)), axis=0, return_counts=True)

    def better(counts):  # of how many texts there are of each such row -> by how much, in accuracy and macro-F1
        tables = [np.bincount(rows[:, 0] * K + guess, counts, K * K).reshape(K, K) for guess in rows.T[1:]]
        scores = np.array([(np.trace(table) / len(targets), macro_f1(table)) for table in tables])
        return scores[: a.shape[1]].mean(axis=0) - scores[a.shape[1] :].mean(axis=0)

    draws, found = np.array([better(drawn) for some in redraw(counts) for drawn in some]), {'n': len(targets)}
    for name, difference, drawn in zip(('accuracy', 'macro_f1'), better(counts), draws.T):
        found[name] = {'difference': float(difference), 'ci': interval(drawn)}
    if a.shape[1] == b.shape[1] == 1:
        right, theirs = a[:, 0] == targets, b[:, 0] == targets
        only = int((right & ~theirs).sum()), int((theirs & ~right).sum())
        found |= {'only_a_right': only[0], 'only_b_right': only[1], 'mcnemar_p': mcnemar(*only)}
    return found


def describe(counts):
    """
    Counter of (value, label) of a column -> missing and distinct values; of a category the share of rows whose label is the
    commonest among the other rows of their value (a guess, and 0 for an id), and Pearson's chi-square test: does it go with
    the label? Example: {(a, x): 10, (a, y): 20, (b, x): 20, (b, y): 10} -> guess 2/3, chi2 6.667, df 1, p 0.0098
    """
    values, labels = (list(dict.fromkeys(names)) for names in zip(*counts))
    out = {'missing': sum(n for (value, _), n in counts.items() if not value)}
    out['distinct'] = len(values) if len(counts) < 1000 else None  # prepare.py's scan gave up
    if not out['distinct']:
        return out
    columns = (*labels, None)  # None: nothing, for there may be but one label
    seen = np.array([[counts[value, label] for label in columns] for value in values], dtype=float)
    second, first = np.sort(seen, axis=1)[:, -2:].T
    ties = 1 + (seen == second[:, None]).sum(axis=1)  # a row's own label does not count; of several alike any may be
    sure = (first - 1 > second) + (first - 1 == second) / ties
    seen, out['guess'] = seen[:, :-1], float((first * sure)[first > 1].sum() / seen.sum())
    if 2 <= out['distinct'] <= 50:
        expected = seen.sum(axis=1, keepdims=True) * seen.sum(axis=0) / seen.sum()
        chi2, df = ((seen - expected) ** 2 / expected).sum(), (len(values) - 1) * (len(labels) - 1)
        p = torch.special.gammaincc(*torch.tensor((df / 2, chi2 / 2), dtype=torch.float64))
        out |= {'chi2': float(chi2), 'df': df, 'p': float(p)}
    return out


# -----------------------------------------------------------------------------
# words alone

MOST = 100_000  # texts to learn from: more change little, and take minutes


def grams(text):
    """'Not so good' -> ['not', 'so', 'good', 'not so', 'so good']; a word has two letters or more."""
    words = re.findall(r'\b\w\w+\b', text.lower())
    return words + [f'{a} {b}' for a, b in zip(words, words[1:])]


def vectorize(texts, vocab, idf=None):
    """
    texts, vocab {gram: column} -> columns (nnz,), offsets (n,) where each text begins, values (nnz,) of rows of length 1, and
    idf (V,) = 1 + ln((1 + n) / (1 + texts with it)), counted here unless given.
    """
    counts = [Counter(vocab[gram] for gram in grams(text) if gram in vocab) for text in texts]
    columns = torch.tensor([column for count in counts for column in count], dtype=torch.long)
    values = torch.tensor([n for count in counts for n in count.values()], dtype=torch.float32)
    sizes = torch.tensor([len(count) for count in counts])
    if idf is None:
        idf = 1 + ((1 + len(texts)) / (1 + torch.bincount(columns, minlength=len(vocab)))).log()
    values = values * idf[columns]
    row = torch.repeat_interleave(torch.arange(len(counts)), sizes)
    norm = torch.zeros(len(counts)).index_add_(0, row, values**2).sqrt()
    return columns, sizes.cumsum(0) - sizes, values / norm[row], idf


def fit(texts, labels, n_class):
    """Texts and labels (n,) -> a function texts -> logits (n, n_class), and the words known. L2 weight 1, no tuning."""
    vocab = {}
    for text in texts:
        for gram in grams(text):
            vocab.setdefault(gram, len(vocab))
    columns, offsets, values, idf = vectorize(texts, vocab)
    y = torch.as_tensor(np.asarray(labels), dtype=torch.long)
    counts = torch.bincount(y, minlength=n_class).clamp(min=1)
    weight = len(y) / (n_class * counts.float())
    W, b = torch.zeros(max(len(vocab), 1), n_class, requires_grad=True), torch.zeros(n_class, requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=100, tolerance_change=1e-7, line_search_fn='strong_wolfe')
    penalty = 1 if n_class > 2 else 2  # for two classes there is one vector, and here it is spread over two

    def closure():
        optimizer.zero_grad()
        logits = F.embedding_bag(columns, W, offsets, mode='sum', per_sample_weights=values) + b  # sparse rows times W
        loss = (F.cross_entropy(logits, y, weight, reduction='sum') + penalty * (W**2).sum() / 2) / len(y)
        loss.backward()
        return loss

    optimizer.step(closure)
    W, b = W.detach(), b.detach()

    def predict(texts):
        columns, offsets, values, _ = vectorize(texts, vocab, idf)
        return (F.embedding_bag(columns, W, offsets, mode='sum', per_sample_weights=values) + b).numpy()

    return predict, [gram for gram in vocab if ' ' not in gram]


def fitted(folder, splits, tokenizer):
    """
    A prepared folder, its splits, its tokenizer -> {'majority' and 'bag_of_words': {split: figures}, 'words': those of the
    training split}, kept in the folder as baseline.json.
    """
    path = os.path.join(folder, 'baseline.json')
    if os.path.exists(path):
        with open(path, encoding='utf-8') as f:
            return json.load(f)
    train, rng = splits['train'], np.random.default_rng(0)
    labels = train.meta['labels']
    rows = np.sort(rng.permutation(len(train))[:MOST])
    predict, words = fit([tokenizer.decode(train[i]) for i in rows], train.labels[rows], len(labels))
    commonest = np.eye(len(labels))[np.bincount(train.labels).argmax()]
    found = {'majority': {}, 'bag_of_words': {}, 'words': words}
    for name in splits.keys() - {'train'}:
        some = splits[name]
        texts = [tokenizer.decode(some[i]) for i in range(min(len(some), MOST))]
        y = some.labels[: len(texts)]
        for model, logits in (('bag_of_words', predict(texts)), ('majority', np.tile(commonest, (len(y), 1)))):
            m = metrics(logits, y, labels)
            recall = {label: x['recall'] for label, x in m['per_class'].items()}
            found[model][name] = {key: m[key] for key in ('n', 'accuracy', 'macro_f1', 'confusion')} | {'recall': recall}
    write_whole(path, json.dumps(found) + '\n')
    return found


# transparent rules for the error analysis, not a lexicon; the words are those that such rules miss first
CUES = {
    'negation': 'no not never none nothing nobody nowhere neither nor without hardly barely scarcely cannot lacks',
    'contrast': 'but however although though yet despite while instead except nevertheless still',
    'positive': 'good great best better love loved excellent wonderful perfect happy fun funny enjoy enjoyable thank thanks '
    'kind beautiful helpful smart moving charming fresh powerful appreciate glad pleased amazing resolved',
    'negative': 'bad worst worse hate hated awful terrible poor boring dull stupid slow late broken rude angry waste silly '
    'lame mess weak disappointing disappointed frustrated frustrating annoying unacceptable fails failed problem',
}
TAGS = ('negation', 'contrast', 'mixed', 'long', 'rare', 'no_cue')


def tags(text, truncated=False, known=None):
    """
    A text -> which of TAGS hold: negation and contrast by CUES; mixed: positive and negative cues; no_cue: neither; long: it
    was cut; rare: a word that is not among the known ones of training. Example: 'not bad , but long' -> negation contrast
    """
    found = re.findall(r'\w+', re.sub("n['’]t\\b", ' not ', text.lower()))
    has = {cue: not set(found).isdisjoint(listed.split()) for cue, listed in CUES.items()}
    rare = known is not None and any(word not in known for word in grams(text) if ' ' not in word)
    rules = (has['negation'], has['contrast'], has['positive'] and has['negative'], truncated, rare)
    return [tag for tag, holds in zip(TAGS, (*rules, not (has['positive'] or has['negative']))) if holds]


def table(m, labels):
    """The metrics of one split as lines for people: per-class scores beside the confusion matrix."""
    w = max(9, *(len(label) for label in labels))
    cell = max(6, min(w, 12)) + 2
    low, high = m['accuracy_ci']
    lines = [
        f'accuracy {m["accuracy"]:.3f} [{low:.3f}, {high:.3f}]   macro-F1 {m["macro_f1"]:.3f}   NLL {m["nll"]:.3f}   n {m["n"]}'
    ]
    names = ''.join(f'{label[: cell - 2]:>{cell}}' for label in labels)
    lines.append(f'{"":{w}}  precision  recall     F1  support   predicted:{names}')
    for label, row in zip(labels, m['confusion'], strict=True):
        c = m['per_class'][label]
        scores = f'{label:{w}}  {c["precision"]:9.3f}  {c["recall"]:6.3f}  {c["f1"]:5.3f}  {c["support"]:7,}'
        lines.append(f'{scores}   {"":10}' + ''.join(f'{x:{cell},}' for x in row))
    return '\n'.join(lines)


def show_data(report):
    """prepare.py's report for people."""
    for key in ('dataset', 'rows', 'rejected', 'emptied', 'repeated_rows', 'texts_under_several_labels', 'test_texts_in_train'):
        print(f'{key:28} {report[key]}')
    print(f'\n{"label":20}' + ''.join(f'{split:>10}' for split in report['rows']) + '   tokens: p5   p50   p95   max')
    for label, lengths in report['lengths'].items():
        cells = [f'{n[label]:10,}' for n in report['labels'].values()] + [' ' * 5] + [f'{n:6.0f}' for n in lengths]
        print(f'{label[:20]:20}' + ''.join(cells))
    print(f'\n{"column":28} missing distinct  guess       chi2  df        p  goes with the label?')
    for column, c in report['columns'].items():
        guess = f'{c["guess"]:7.1%}' if 'guess' in c else ''
        test = '{chi2:11.1f} {df:3} {p:8.2g}  '.format(**c) + ('yes' if c['p'] < 0.01 else 'no') if 'p' in c else ''
        print(f'{column[:28]:28} {c["missing"]:7,} {c["distinct"] or "many":>8}{guess}{test}')
    train = report['labels']['train'].values()
    others = 1 - max(train) / sum(train)  # the errors of who always says the commonest label
    for column in [column for column, c in report['columns'].items() if 1 - c.get('guess', 0) < 0.05 * others]:
        print(f'{column} alone tells the label: what a model learns from the text may be that')
    print(f'\n{report["share_truncated"]:.1%} of the training texts are cut. One of them all:\n{report["example"]}')


def show(m):
    """One judgement for people."""
    print(f'\n{m["device"]}, {m["dtype"]}; {m["dataset"]}, {m["input"] or m["split"]}:\n{table(m, m["labels"])}')
    for name, b in m['baseline'].items():
        if b:
            print(f'{name.replace("_", " "):14} accuracy {b["accuracy"]:.3f}   macro-F1 {b["macro_f1"]:.3f}')
    print(f'calibration    ECE {m["ece"]:.3f}, at temperature {m["temperature"]:.2f} {m["ece_calibrated"]:.3f}')
    sure = (f'{t:.2f}: {share:.0%} {right:.3f}' for t, share, right in m['coverage'] if share)
    print(f'when at least so sure, share answered and its accuracy   {"   ".join(sure)}')
    errors = (f'{tag} {x["errors"]}/{x["n"]} [{x["ci"][0]:.2f}, {x["ci"][1]:.2f}]' for tag, x in m['tags'].items() if x['n'])
    print(f'errors, {1 - m["accuracy"]:.1%} of all   {"   ".join(errors)}')


def show_summary(m):
    scores = ', '.join(f'{name} {m[name]:.3f} +- {m[name + "_sd"]:.3f}' for name in ('accuracy', 'macro_f1'))
    print(f'\n{m["runs"]} runs, mean and standard deviation: {scores}')
    if 'out_of_fold_macro_f1' in m:
        print('out of fold, {n:,} rows once each: macro-F1 {out_of_fold_macro_f1:.3f} {out_of_fold_macro_f1_ci}'.format(**m))


def write_whole(path, text):
    """Whole or not at all, under a name of its own first: two runs may end at once."""
    with open(own := f'{path}.{os.getpid()}', 'w', encoding='utf-8') as f:
        f.write(text)
    os.replace(own, path)
