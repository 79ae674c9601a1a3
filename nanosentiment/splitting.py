"""Which rows train, validate and test: stratified by label, and no text in two of them."""

import itertools
import re

import numpy as np

TRAIN, VAL, TEST = 0, 1, 2
LEFT_OUT = 3  # of rows that turn out to be unusable once all rows have been read


def assign_splits(text_hashes, labels, val_fraction, test_fraction, seed, folds=0, fold=0):
    """
    Stratified split of n rows -> split_of_row (n,) uint8: TRAIN, VAL or TEST.

    text_hashes (n,) are integers that equal texts share, labels (n,) integers from 0. Equal texts
    go into the same split, counted under the label of the first.

    Without folds, a label with at least two texts has one in TRAIN, and one in VAL if
    val_fraction > 0. With fold (1 to folds), TEST is the fold-th of about equal parts of every
    label, so that each text is tested in exactly one fold, and test_fraction does not count. A
    label of few texts may then have none in VAL, and one of a single text is missing from TRAIN in
    the fold that tests it.
    """
    # a text is represented by the first of its rows
    _, first_row, text_of_row = np.unique(text_hashes, return_index=True, return_inverse=True)
    label_of_text = labels[first_row]

    # Shuffle the texts of each label. The random number belongs to the row and not to the text, so
    # that other cleaning, which makes other texts equal, leaves the validation rows as they are.
    random_of_row = np.random.default_rng(seed).random(len(labels))
    shuffled = np.lexsort((random_of_row[first_row], label_of_text))  # by label, then at random
    label_sizes = np.bincount(label_of_text)
    texts_by_label = np.split(shuffled, np.cumsum(label_sizes)[:-1])

    split_of_text = np.full(len(first_row), TRAIN, dtype=np.uint8)
    for texts in texts_by_label:
        n = len(texts)
        if n == 0:
            continue  # each text of this label has come under another one before
        n_val = round_size(n, val_fraction, n - 1)
        if fold:
            # The texts form a ring, which the folds cut into arcs of about equal length. One arc is
            # the test split, and the validation texts are those before it; the last text stands
            # before the first.
            test_begin = ceil_divide(n * (fold - 1), folds)
            test_end = ceil_divide(n * fold, folds)
            n_test = test_end - test_begin
            n_val = min(n_val, max(n - 1 - n_test, 0))
            # turn the ring so that it begins with the validation texts
            texts = np.roll(texts, n_val - test_begin)
        else:
            n_test = round_size(n, test_fraction, n - 1 - n_val)
        split_of_text[texts[:n_val]] = VAL
        split_of_text[texts[n_val : n_val + n_test]] = TEST
    return split_of_text[text_of_row]


def join_groups(text_hashes, groups):
    """
    Rows that share a text or a group, directly or through other rows, get one number.

    text_hashes, groups (n,) integers -> numbers (n,) to call assign_splits with, in the place of
    text_hashes. Each round hands the smallest number on to all rows of a text and of a group.
    """
    n = len(groups)
    numbers = np.arange(n)
    while True:
        old_numbers = numbers
        for keys in (text_hashes, groups):
            _, key_of_row = np.unique(keys, return_inverse=True)
            smallest = np.full(n, n)
            np.minimum.at(smallest, key_of_row, numbers)
            numbers = smallest[key_of_row]
        if (numbers == old_numbers).all():
            return numbers


def count_repeats(text_hashes, labels):
    """-> number of rows whose text has occurred before, number of texts with several labels"""
    _, first_row, text_of_row = np.unique(text_hashes, return_index=True, return_inverse=True)
    n_repeated = len(text_hashes) - len(first_row)
    label_of_text = labels[first_row]
    has_other_label = labels != label_of_text[text_of_row]
    n_conflicts = len(np.unique(text_of_row[has_other_label]))
    return n_repeated, n_conflicts


def round_size(n, fraction, at_most):
    """fraction of n, rounded, but at least 1 if fraction > 0, and then never above at_most."""
    size = round(n * fraction)
    if fraction > 0:
        size = max(size, 1)
    return min(size, at_most)


def ceil_divide(a, b):
    return -(-a // b)


# -----------------------------------------------------------------------------
# data sets whose rows are phrases of other rows


def keep_phrases_together(texts, split_of_row):
    """
    Moves every text that is a phrase of longer ones to where they are -> split_of_row (n,) uint8.

    If the longer texts are in different splits the phrase goes to TRAIN. This is for data sets such
    as SST-2, whose rows are phrases of each other. Split at random, a model was validated on
    phrases that it knew from training: its accuracy was 0.947, but 0.897 on new sentences.
    """
    split_of_text = dict(zip(texts, split_of_row.tolist()))
    inherited = {}  # {phrase: the split of the longer texts}

    # The longest first: if a text is itself a phrase, the longer text has handed on all of its
    # phrases, too.
    for text in sorted(split_of_text, key=len, reverse=True):
        if text in inherited:
            continue
        split_number = split_of_text[text]
        for phrase in phrases_of(text):
            if phrase == text or phrase not in split_of_text:
                continue
            if phrase not in inherited:
                inherited[phrase] = split_number
            elif inherited[phrase] != split_number:
                inherited[phrase] = TRAIN

    new_splits = []
    for text, split_number in zip(texts, split_of_row.tolist()):
        new_splits.append(inherited.get(text, split_number))
    return np.array(new_splits, dtype=np.uint8)


def phrases_of(text):
    """'a fine film' -> ['a', 'a fine', 'a fine film', 'fine', 'fine film', 'film']"""
    gaps = [gap.start() for gap in re.finditer('[ \n]', text)]
    cuts = [-1, *gaps, len(text)]
    # slices of the text, because joining words takes longer
    return [text[begin + 1 : end] for begin, end in itertools.combinations(cuts, 2)]
