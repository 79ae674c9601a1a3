"""
What a transformer has to beat: the most frequent label, and a bag of words.

The bag of words is a logistic regression on TF-IDF weights of words and word pairs, the same as
scikit-learn's TfidfVectorizer(ngram_range=(1, 2)) with LogisticRegression(class_weight='balanced').
Nothing about it is tuned.
"""

import contextlib
import os
from collections import Counter

import numpy as np
import torch
from torch.nn import functional as F

from nanosentiment.error_tags import find_words
from nanosentiment.files import read_sealed_json, write_sealed_json
from nanosentiment.metrics import accuracy, confusion, macro_f1, precision_recall_f1

MAX_TEXTS = 100_000  # more training texts change little and take minutes

# -----------------------------------------------------------------------------
# bag of words


def find_ngrams(text):
    """'Not so good' -> ['not', 'so', 'good', 'not so', 'so good']"""
    words = find_words(text)
    pairs = [f'{first} {second}' for first, second in zip(words, words[1:])]
    return words + pairs


def tfidf(texts, vocab, idf=None):
    """
    n texts as sparse rows of TF-IDF weights, each of norm 1.

    vocab is {n-gram: column}. Returns columns (nnz,), values (nnz,), offsets (n,) where each text
    begins in them, and idf (V,) = 1 + ln((1 + n) / (1 + number of texts with the n-gram)), which
    is computed from these texts unless it is given.
    """
    columns = []
    counts = []
    sizes = []  # number of different n-grams of each text
    for text in texts:
        columns_of_text = [vocab[ngram] for ngram in find_ngrams(text) if ngram in vocab]
        count_of_column = Counter(columns_of_text)
        columns += count_of_column.keys()
        counts += count_of_column.values()
        sizes.append(len(count_of_column))
    columns = torch.tensor(columns, dtype=torch.long)
    counts = torch.tensor(counts, dtype=torch.float32)
    sizes = torch.tensor(sizes, dtype=torch.long)

    if idf is None:
        n_texts_with = torch.bincount(columns, minlength=len(vocab))
        idf = 1 + ((1 + len(texts)) / (1 + n_texts_with)).log()
    values = counts * idf[columns]
    # a long text must not weigh more than a short one: each row is divided by its norm
    row = torch.repeat_interleave(torch.arange(len(texts)), sizes)
    norm = torch.zeros(len(texts)).index_add_(0, row, values**2).sqrt()
    values = values / norm[row]
    offsets = sizes.cumsum(0) - sizes
    return columns, values, offsets, idf


class BagOfWords:
    """Logistic regression on TF-IDF weights, with L2 weight 1 and balanced classes."""

    def __init__(self, texts, targets, n_class):
        """Learns from n texts and the numbers of their labels (n,)."""
        # every n-gram gets a column in the order of its first occurrence
        self.vocab = {}
        for text in texts:
            for ngram in find_ngrams(text):
                self.vocab.setdefault(ngram, len(self.vocab))
        columns, values, offsets, self.idf = tfidf(texts, self.vocab)
        n_vocab = max(len(self.vocab), 1)
        self.weight = torch.zeros(n_vocab, n_class, requires_grad=True)  # (V, K)
        self.bias = torch.zeros(n_class, requires_grad=True)  # (K,)

        targets = torch.as_tensor(np.asarray(targets), dtype=torch.long)  # (n,)
        n_of_label = torch.bincount(targets, minlength=n_class).clamp(min=1)
        class_weight = len(targets) / (n_class * n_of_label.float())  # (K,)
        # For two classes scikit-learn has one vector w, which is w/2 and -w/2 here. Their squares
        # add up to half of the square of w, so the penalty is doubled.
        l2 = 1 if n_class > 2 else 2

        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=100,
            tolerance_change=1e-7,
            line_search_fn='strong_wolfe',
        )

        def compute_loss():
            optimizer.zero_grad()
            logits = self.logits(columns, values, offsets)
            loss = F.cross_entropy(logits, targets, class_weight, reduction='sum')
            loss = (loss + l2 * (self.weight**2).sum() / 2) / len(targets)
            loss.backward()
            return loss

        optimizer.step(compute_loss)

    def logits(self, columns, values, offsets):
        """Sparse rows of tfidf() -> logits (n, n_class)."""
        # the sum of a bag of weighted embeddings is the product of a sparse row and a matrix
        product = F.embedding_bag(
            columns, self.weight, offsets, mode='sum', per_sample_weights=values
        )
        return product + self.bias

    @torch.no_grad()
    def predict(self, texts):
        """Texts -> logits (n, n_class) as a numpy array."""
        columns, values, offsets, _ = tfidf(texts, self.vocab, self.idf)
        return self.logits(columns, values, offsets).numpy()

    @property
    def words(self):
        """The words of the training texts, without the pairs."""
        return [ngram for ngram in self.vocab if ' ' not in ngram]


# -----------------------------------------------------------------------------
# the baselines of a prepared folder


def score_baseline(logits, targets, labels):
    """
    The scores of one baseline on one split, as baseline.json holds them.

    labels may be more than the logits have, as in `metrics.score`.
    """
    table = confusion(targets, logits.argmax(axis=1), len(labels))
    recall = precision_recall_f1(table)[1]
    return {
        'n': len(targets),
        'accuracy': float(accuracy(table)),
        'macro_f1': float(macro_f1(table)),
        'confusion': table.tolist(),
        'recall': dict(zip(labels, recall.tolist())),
    }


def fit_baselines(folder, splits, tokenizer):
    """
    Fits both baselines on the training split of a prepared folder and scores them on the others.

    splits is {name: Split}. Returns {'majority': {split: scores}, 'bag_of_words': {split: scores},
    'words': the words of the training texts}. The folder keeps it as baseline.json, from which
    a second call reads it, unless it is read-only.
    """
    path = os.path.join(folder, 'baseline.json')
    with contextlib.suppress(ValueError):  # there is none yet, or it is damaged
        return read_sealed_json(path, 'delete it')

    train = splits['train']
    labels = train.meta['labels']
    rows = np.random.default_rng(0).permutation(len(train))
    rows = np.sort(rows[:MAX_TEXTS])
    texts = [tokenizer.decode(train[i]) for i in rows]
    bag_of_words = BagOfWords(texts, train.labels[rows], len(labels))
    most_frequent = np.bincount(train.labels).argmax()

    baselines = {'majority': {}, 'bag_of_words': {}, 'words': bag_of_words.words}
    for name, split in splits.items():
        if name == 'train':
            continue
        n = min(len(split), MAX_TEXTS)
        texts = [tokenizer.decode(split[i]) for i in range(n)]
        targets = split.labels[:n]
        majority_logits = np.zeros((n, len(labels)))
        majority_logits[:, most_frequent] = 1
        word_logits = bag_of_words.predict(texts)
        all_labels = split_labels(split.meta, name)
        baselines['majority'][name] = score_baseline(majority_logits, targets, all_labels)
        baselines['bag_of_words'][name] = score_baseline(word_logits, targets, all_labels)
    with contextlib.suppress(ValueError):  # a folder that is read-only
        write_sealed_json(path, baselines)
    return baselines


def split_labels(meta, split):
    """The labels of a split: those of training, and for the test those that only it has."""
    if split == 'test':
        return meta['labels'] + meta['unknown_labels']
    return meta['labels']
