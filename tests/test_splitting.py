# python -m pytest tests/test_splitting.py
"""The split: stratified, repeatable, and no text on both sides of it."""

import numpy as np
import pytest

from nanosentiment.splitting import (
    TEST,
    TRAIN,
    VAL,
    assign_splits,
    count_repeats,
    join_groups,
    keep_phrases_together,
)


def random_rows(seed):
    """Text hashes and labels of 400 rows: five labels, two of them rare, and repeated texts."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(5, 400, p=(0.6, 0.3, 0.08, 0.01, 0.01))
    text_hashes = labels * 1000 + rng.integers(0, 300, 400)
    return text_hashes, labels


@pytest.mark.parametrize('test_fraction', [0.0, 0.1, 0.3])
@pytest.mark.parametrize('seed', range(10))
def test_each_label_is_split_in_the_same_proportions(seed, test_fraction):
    """Sizes count different texts, and even a label of few texts has some for every split."""
    text_hashes, labels = random_rows(seed)
    splits = assign_splits(text_hashes, labels, 0.2, test_fraction, seed)
    assert count_repeats(text_hashes, labels) == (400 - len(np.unique(text_hashes)), 0)

    for label in np.unique(labels):
        texts, first_rows = np.unique(text_hashes[labels == label], return_index=True)
        n = len(texts)
        n_train, n_val, n_test = np.bincount(splits[labels == label][first_rows], minlength=3)
        assert n_train >= 1
        if n >= 2:
            assert n_val >= 1
        if n >= 3:
            assert (n_test >= 1) == (test_fraction > 0)
        if n > 20:
            assert abs(n_val - 0.2 * n) <= 0.5
            assert abs(n_test - test_fraction * n) <= 0.5


@pytest.mark.parametrize('seed', range(10))
def test_equal_texts_are_in_the_same_split(seed):
    """A text in both train and validation measures memory, not skill."""
    text_hashes, labels = random_rows(seed)
    splits = assign_splits(text_hashes, labels, 0.2, 0.1, seed)
    for text_hash in np.unique(text_hashes):
        assert len(set(splits[text_hashes == text_hash])) == 1


def test_a_label_of_two_texts_has_one_in_train_and_one_in_validation():
    labels = np.repeat([0, 1, 2], [300, 98, 2])
    splits = assign_splits(np.arange(400), labels, 0.2, 0.1, seed=0)
    assert sorted(splits[labels == 2]) == [TRAIN, VAL]


def test_the_split_follows_its_seed():
    """Runs with several seeds are compared on one validation split; another seed gives another."""
    text_hashes = np.random.default_rng(0).integers(-(2**62), 2**62, 200)
    labels = np.arange(200) % 2
    first = assign_splits(text_hashes, labels, 0.1, 0.1, seed=0)
    again = assign_splits(text_hashes, labels, 0.1, 0.1, seed=0)
    other = assign_splits(text_hashes, labels, 0.1, 0.1, seed=1)
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize('seed', range(20))
def test_a_text_with_two_labels_is_counted_and_stays_in_one_split(seed):
    text_hashes = np.array([7, 7, 7, 3, 3, 1, 2, 4, 5, 6])
    labels = np.array([0, 1, 1, 1, 1, 0, 0, 1, 0, 1])
    splits = assign_splits(text_hashes, labels, 0.3, 0.2, seed)
    assert count_repeats(text_hashes, labels) == (3, 1)
    assert len(set(splits[:3])) == 1
    assert len(set(splits[3:5])) == 1


@pytest.mark.parametrize('seed', range(10))
def test_neither_a_group_nor_a_text_is_in_two_splits(seed):
    """Even if two groups share a text: then they stay together as well."""
    rng = np.random.default_rng(seed)
    text_hashes = rng.integers(0, 2000, 400)
    groups = rng.integers(0, 120, 400)
    labels = rng.integers(0, 3, 400)

    numbers = join_groups(text_hashes, groups)
    assert len(np.unique(numbers)) < len(np.unique(groups))
    for fold in (0, 1, 2):
        splits = assign_splits(numbers, labels, 0.2, 0.2, seed, folds=2, fold=fold)
        assert set(splits) == {TRAIN, VAL, TEST}
        for keys in (text_hashes, groups):
            for key in np.unique(keys):
                assert len(set(splits[keys == key])) == 1


def test_groups_are_joined_along_a_chain():
    """Rows 0 to 5 hang together, each with the next by a text or a group; row 6 is alone."""
    text_hashes = np.array([1, 1, 2, 2, 3, 3, 4])
    groups = np.array([50, 40, 40, 30, 30, 20, 60])
    assert join_groups(text_hashes, groups).tolist() == [0, 0, 0, 0, 0, 0, 6]


@pytest.mark.parametrize('folds', [2, 3, 5])
def test_every_text_is_tested_in_exactly_one_fold(folds):
    text_hashes, labels = random_rows(seed=0)
    n_tested = np.zeros(400, dtype=int)
    for fold in range(1, folds + 1):
        splits = assign_splits(text_hashes, labels, 0.2, 0.1, 0, folds, fold)
        n_tested += splits == TEST
        assert {TRAIN, VAL, TEST} == set(splits)
    assert (n_tested == 1).all()


@pytest.mark.parametrize('n_texts', [1, 2, 3, 7])
def test_a_label_of_few_texts_is_tested_once_too(n_texts):
    """Only a label of a single text is missing from train in the fold that tests it."""
    labels = np.repeat([0, 1], [40, n_texts])
    n_tested = 0
    for fold in range(1, 6):
        splits = assign_splits(np.arange(len(labels)), labels, 0.2, 0.1, 0, folds=5, fold=fold)
        rare = splits[labels == 1].tolist()
        n_tested += rare.count(TEST)
        assert TRAIN in rare or n_texts == 1
    assert n_tested == n_texts


# -----------------------------------------------------------------------------
# phrases


def test_a_phrase_goes_where_its_sentences_are():
    texts = [
        'a fine film of note',
        'a fine film',  # a phrase of the first
        'fine',  # a phrase of the first and of 'this fine mess'
        'this fine mess',
        'of note',
        'of note',
        'fine films',  # a phrase of none, because words count and not letters
        'never seen',
    ]
    splits = np.array([VAL, TRAIN, VAL, TRAIN, TRAIN, VAL, VAL, VAL])
    expected = [VAL, VAL, TRAIN, TRAIN, VAL, VAL, VAL, VAL]
    assert keep_phrases_together(texts, splits).tolist() == expected


def test_a_phrase_of_a_phrase_goes_where_the_longest_is():
    texts = ['fine', 'a fine film', 'a fine film of note']
    splits = np.array([TRAIN, TEST, VAL])
    assert keep_phrases_together(texts, splits).tolist() == [VAL, VAL, VAL]


def test_no_phrase_of_a_training_text_is_validated_on():
    """The phrase of a validation text is in validation too, or in train if others contain it."""
    rng = np.random.default_rng(0)
    texts = set()
    for _ in range(400):
        words = rng.choice(list('abcdef'), rng.integers(1, 7))
        texts.add(' '.join(words))
    texts = sorted(texts)
    splits = keep_phrases_together(texts, rng.choice(3, len(texts), p=(0.6, 0.3, 0.1)))

    pairs = set()  # the splits of a phrase and of a text that contains it
    for phrase, phrase_split in zip(texts, splits.tolist()):
        for text, text_split in zip(texts, splits.tolist()):
            if phrase != text and f' {phrase} ' in f' {text} ':
                pairs.add((phrase_split, text_split))
    allowed = {(TRAIN, TRAIN), (TRAIN, VAL), (TRAIN, TEST), (VAL, VAL), (TEST, TEST)}
    assert pairs == allowed
