"""A weak baseline would make every model look good. python -m pytest tests/test_baseline.py"""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from nanosentiment.baseline import BagOfWords, fit_baselines
from nanosentiment.metrics import softmax

CUES = (['good', 'fine', 'lovely'], ['bad', 'awful', 'late'], ['odd', 'moon', 'banana'])


def make_texts(n, seed=0):
    """Texts of noise with one or two cues of their label and one of another; labels 6 : 3 : 1."""
    rng = np.random.default_rng(seed)
    noise = [f'word{i}' for i in range(200)]
    labels = rng.choice(3, n, p=(0.6, 0.3, 0.1))
    texts = []
    for label in labels:
        n_cues = rng.integers(1, 3)
        own = rng.choice(CUES[label], n_cues)
        other = rng.choice(CUES[label - 1], 1)
        words = [*rng.choice(noise, 12), *own, *other]
        rng.shuffle(words)
        texts.append(' '.join(words))
    return texts, labels


@pytest.mark.parametrize('n_class', [2, 3])
def test_the_probabilities_are_those_of_scikit_learn(n_class):
    """A TfidfVectorizer and a balanced LogisticRegression. Two classes are a case of their own."""
    pytest.importorskip('sklearn')
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = make_texts(600)
    new_texts, new_labels = make_texts(300, seed=1)
    labels = np.minimum(labels, n_class - 1)
    new_labels = np.minimum(new_labels, n_class - 1)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    regression = LogisticRegression(class_weight='balanced', max_iter=1000, tol=1e-6)
    regression.fit(vectorizer.fit_transform(texts), labels)
    expected = regression.predict_proba(vectorizer.transform(new_texts))

    logits = BagOfWords(texts, labels, n_class).predict(new_texts)

    np.testing.assert_allclose(softmax(logits), expected, atol=5e-3)
    assert (logits.argmax(axis=1) == new_labels).mean() > 0.5


def test_texts_without_a_known_word_have_a_prediction():
    texts, labels = make_texts(50)
    logits = BagOfWords(texts, labels, 3).predict(['', 'unheardof'])
    assert np.isfinite(logits).all()


def test_its_words_are_single_words():
    """The error analysis takes every other word for a rare one."""
    bag_of_words = BagOfWords(['a good day', 'Bad, bad day'], [0, 1], 2)
    assert bag_of_words.words == ['good', 'day', 'bad']


class FakeSplit(list):
    """Texts with labels, in place of the memmaps of a prepared folder."""

    def __init__(self, n, seed):
        texts, labels = make_texts(n, seed)
        super().__init__(texts)
        self.labels = labels
        self.meta = {'labels': ['a', 'b', 'c'], 'unknown_labels': []}


def test_both_baselines_are_scored_on_every_other_split_and_kept(tmp_path):
    tokenizer = SimpleNamespace(decode=str)
    splits = {'train': FakeSplit(300, 0), 'val': FakeSplit(60, 1), 'test': FakeSplit(90, 2)}

    baselines = fit_baselines(tmp_path, splits, tokenizer)

    assert baselines['bag_of_words'].keys() == baselines['majority'].keys() == {'val', 'test'}
    majority = baselines['majority']['test']
    assert majority['n'] == 90
    assert majority['accuracy'] == np.mean(splits['test'].labels == 0)
    assert majority['recall'] == {'a': 1, 'b': 0, 'c': 0}
    assert baselines['bag_of_words']['test']['macro_f1'] > majority['macro_f1']
    # the second call does not read the splits
    assert fit_baselines(tmp_path, {}, tokenizer) == baselines


def test_a_label_that_only_the_test_has_is_wrong_for_the_baselines_too(tmp_path):
    """Else a model would be compared with baselines that were asked easier questions."""
    splits = {'train': FakeSplit(300, 0), 'val': FakeSplit(60, 1), 'test': FakeSplit(90, 2)}
    splits['test'].labels[:30] = 3
    splits['test'].meta['unknown_labels'] = ['d']

    baselines = fit_baselines(tmp_path, splits, SimpleNamespace(decode=str))

    for name in ('majority', 'bag_of_words'):
        scores = baselines[name]
        test = scores['test']
        assert test['n'] == 90
        assert test['accuracy'] <= 60 / 90
        assert test['recall']['d'] == 0
        assert sum(test['confusion'][3]) == 30
        assert list(scores['val']['recall']) == ['a', 'b', 'c']


def test_a_folder_that_cannot_be_written_has_baselines_too(tmp_path):
    """They are computed again each time; the folder is missing here, as root may write to any."""
    splits = {'train': FakeSplit(50, 0), 'test': FakeSplit(9, 2)}
    baselines = fit_baselines(tmp_path / 'nowhere', splits, SimpleNamespace(decode=str))
    assert baselines['majority']['test']['n'] == 9


def test_a_damaged_file_is_computed_again(tmp_path):
    """It only saves time, and a changed figure in it would stand beside our own as the baseline."""
    splits = {'train': FakeSplit(50, 0), 'test': FakeSplit(9, 2)}
    expected = fit_baselines(tmp_path, splits, SimpleNamespace(decode=str))
    path = tmp_path / 'baseline.json'
    path.write_text(path.read_text().replace('"n": 9', '"n": 8'))
    assert fit_baselines(tmp_path, splits, SimpleNamespace(decode=str)) == expected
    assert '"n": 9' in path.read_text()


RAW_DATA = os.environ.get('NANOSENTIMENT_RAW')


def read_examples(path, columns):
    from nanosentiment.tables import Table

    text_column, label_column = columns
    texts, labels = [], []
    for _, row, reason in Table(path):
        if not reason:
            texts.append(row[text_column])
            labels.append(row[label_column])
    return texts, labels


def accuracies(texts, labels, test_texts, test_labels):
    """Ours and scikit-learn's."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    regression = LogisticRegression(class_weight='balanced', max_iter=1000)
    regression.fit(vectorizer.fit_transform(texts), labels)
    theirs = regression.predict(vectorizer.transform(test_texts))
    ours = BagOfWords(texts, labels, labels.max() + 1).predict(test_texts).argmax(axis=1)
    return np.mean(ours == test_labels), np.mean(theirs == test_labels)


@pytest.mark.slow
@pytest.mark.skipif(not RAW_DATA, reason='real data: NANOSENTIMENT_RAW is not set')
@pytest.mark.parametrize('dataset', ['customer_service', 'sst2'])
def test_on_real_data_it_is_as_good_as_scikit_learn(dataset):
    """Within 1.5 points: SST-2 from a third of its training texts, customer_service in 5 folds."""
    pytest.importorskip('sklearn')
    from nanosentiment.datasets import DATASETS, find_raw

    paths = find_raw(dataset, '')
    columns = DATASETS[dataset]['columns']
    texts, names = read_examples(paths['train'], columns)
    label_names = sorted(set(names))
    texts = np.array(texts, dtype=object)
    labels = np.array([label_names.index(name) for name in names])

    results = []
    if dataset == 'sst2':
        test_texts, test_names = read_examples(paths['test'], columns)
        test_labels = np.array([label_names.index(name) for name in test_names])
        results.append(accuracies(texts[::3], labels[::3], test_texts, test_labels))
    else:
        fold_of_text = np.arange(len(texts)) % 5
        for fold in range(5):
            is_test = fold_of_text == fold
            train = (texts[~is_test], labels[~is_test])
            results.append(accuracies(*train, texts[is_test], labels[is_test]))

    ours, theirs = np.mean(results, axis=0)
    assert abs(ours - theirs) < 0.015
