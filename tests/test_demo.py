"""The bundled demo data: well formed, labelled by their ratings, no test text known from train."""

import csv
import importlib.util
import os
import re
from collections import Counter

import pytest
from conftest import ROOT, run

import sample_classify
from nanosentiment import Classifier

FOLDER = os.path.join(ROOT, 'data', 'demo')
FILES = ['train.csv', 'test.csv']
RAW = os.path.join(os.getenv('NANOSENTIMENT_RAW') or '', 'vader')
needs_raw = pytest.mark.skipif(
    not os.path.exists(os.path.join(RAW, 'tweets_GroundTruth.txt')),
    reason='NANOSENTIMENT_RAW names no folder that holds vader/, the original files',
)

spec = importlib.util.spec_from_file_location('make_demo', os.path.join(FOLDER, 'make_demo.py'))
make_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_demo)


def read_file(name):
    """The rows of a file as dicts."""
    with open(os.path.join(FOLDER, name), encoding='utf-8', newline='') as f:
        return list(csv.DictReader(f))


def words_of(text):
    """The text without case, punctuation and placeholders; written apart from make_demo's."""
    text = text.lower().replace('@anonymous', ' ').replace('http://url_removed', ' ')
    return ' '.join(re.sub(r'[^\w\s]|_', '', text).split())


# -----------------------------------------------------------------------------
# the files


@pytest.mark.parametrize('name', FILES)
def test_every_row_is_whole(name):
    rows = read_file(name)
    assert list(rows[0]) == ['text', 'sentiment', 'source', 'rating']
    for row in rows:
        assert None not in row, 'a row with more cells than the header'
        assert all(row.values())
        assert row['sentiment'] in {'negative', 'neutral', 'positive'}
        assert row['source'] in {'tweet', 'review'}
        assert -4 <= float(row['rating']) <= 4


@pytest.mark.parametrize('name', FILES)
def test_a_row_is_one_line_that_ends_with_lf(name):
    """So that grep, wc and diff show rows, and git shows no change of line ends."""
    with open(os.path.join(FOLDER, name), 'rb') as f:
        content = f.read()
    assert b'\r' not in content
    assert content.endswith(b'\n')
    assert content.count(b'\n') == 1 + len(read_file(name))


@pytest.mark.parametrize('name', FILES)
def test_no_text_holds_entities_or_broken_characters(name):
    for row in read_file(name):
        text = row['text']
        assert text == ' '.join(text.split())
        assert not re.search(r'&#?\w+;', text), text
        assert not re.search(r'[^ -~£ñ]', text), text


@pytest.mark.parametrize('name', FILES)
def test_labels_follow_ratings(name):
    for row in read_file(name):
        rating = float(row['rating'])
        if rating <= -0.5:
            expected = 'negative'
        elif rating >= 0.5:
            expected = 'positive'
        else:
            expected = 'neutral'
        assert row['sentiment'] == expected, row


def test_the_test_has_a_tenth_of_each_label_of_each_source():
    train_counts = Counter((row['source'], row['sentiment']) for row in read_file('train.csv'))
    test_counts = Counter((row['source'], row['sentiment']) for row in read_file('test.csv'))
    assert len(train_counts) == 6
    for kind, n_train in train_counts.items():
        n_test = test_counts[kind]
        assert abs(n_test - (n_train + n_test) / 10) <= 1, kind


def test_counts_in_the_readme_are_those_of_the_files():
    with open(os.path.join(FOLDER, 'README.md'), encoding='utf-8') as f:
        readme = f.read()

    lines = []
    for name in FILES:
        rows = read_file(name)
        for source in ('tweet', 'review'):
            counts = Counter(row['sentiment'] for row in rows if row['source'] == source)
            cells = [counts['negative'], counts['neutral'], counts['positive'], counts.total()]
            numbers = ' | '.join(f'{n:,}' for n in cells)
            lines.append(f'| {name} | {source} | {numbers} |')
    table_lines = [line for line in readme.splitlines() if '.csv |' in line]
    assert table_lines == lines

    test_rows = read_file('test.csv')
    n_test = len(test_rows)
    n = n_test + len(read_file('train.csv'))
    assert f'{n:,} texts, of which {n_test} ({n_test / n:.1%}'.replace('%', ' %') in readme
    positive = Counter(row['sentiment'] for row in test_rows)['positive']
    assert f'right in {100 * positive / n_test:.1f} %' in readme


def test_the_demo_data_stay_small():
    """Everybody who clones the project gets them, so they stay under a megabyte."""
    names = [*FILES, 'make_demo.py', 'README.md', 'LICENSE.txt']
    assert sum(os.path.getsize(os.path.join(FOLDER, name)) for name in names) < 1_000_000


def test_the_licence_is_bundled():
    with open(os.path.join(FOLDER, 'LICENSE.txt'), encoding='utf-8') as f:
        licence = f.read()
    assert licence.startswith('The MIT License')
    assert 'C.J. Hutto' in licence


# -----------------------------------------------------------------------------
# nothing leaks


def test_no_text_is_there_twice():
    texts = [row['text'] for name in FILES for row in read_file(name)]
    assert len(texts) == len(set(texts))


def test_no_test_text_has_the_words_of_a_training_text():
    """An accuracy on texts that are known from training would say nothing."""
    train_words = {words_of(row['text']) for row in read_file('train.csv')}
    test_words = {words_of(row['text']) for row in read_file('test.csv')}
    assert not train_words & test_words


def test_no_version_of_a_test_tweet_is_in_the_training_file():
    """'Yay! Another extremely good phone interview!' gives away the same without 'extremely'."""
    word_sets = {}
    for name in FILES:
        tweets = [row['text'] for row in read_file(name) if row['source'] == 'tweet']
        word_sets[name] = [set(words_of(text).split()) for text in tweets]
    for test_words in word_sets['test.csv']:
        for train_words in word_sets['train.csv']:
            n_common = len(test_words & train_words)
            assert n_common < 0.75 * len(test_words | train_words) or n_common == 0, test_words


@needs_raw
def test_no_review_has_sentences_in_both_files():
    source_rows = make_demo.read_rows(os.path.join(RAW, make_demo.REVIEWS), 'review')
    repeats = Counter(words_of(row['text']) for row in source_rows)
    file_of_text = {row['text']: name for name in FILES for row in read_file(name)}

    files_of_review = {}
    for row in source_rows:
        # a sentence that other reviews have as well may be in the file of one of these
        if repeats[words_of(row['text'])] == 1 and row['text'] in file_of_text:
            review = row['id'].split('_')[0]
            files_of_review.setdefault(review, set()).add(file_of_text[row['text']])

    assert len(files_of_review) == 300
    assert all(len(files) == 1 for files in files_of_review.values())


# -----------------------------------------------------------------------------
# the script


def test_entities_that_were_escaped_twice_are_decoded():
    assert make_demo.clean('at &amp;#38; t  is &lt;3 ') == 'at & t is <3'


def test_versions_of_a_tweet_are_one_group():
    texts = ['Anger is ugly.', 'So it rains.', 'ANGER is UGLY!!', 'Anger is so ugly', 'Sun!']
    rows = []
    for number, text in enumerate(texts):
        rows.append({'id': str(number), 'words': make_demo.words_of(text)})
    make_demo.group_tweets(rows)
    groups = [row['group'] for row in rows]
    assert groups == ['tweet 0', 'tweet 1', 'tweet 0', 'tweet 0', 'tweet 4']


@pytest.mark.parametrize(
    'rating, label',
    [('-0.5', 'negative'), ('-0.49', 'neutral'), ('0.49', 'neutral'), ('0.5', 'positive')],
)
def test_half_a_point_is_a_sentiment(rating, label):
    assert make_demo.label_of(rating) == label


@needs_raw
def test_the_script_writes_the_bundled_bytes(tmp_path):
    """Who doubts the data can remake them."""
    for name, rows in zip(FILES, make_demo.make_rows(RAW)):
        make_demo.write_rows(tmp_path / name, rows)
        with open(os.path.join(FOLDER, name), 'rb') as f:
            assert (tmp_path / name).read_bytes() == f.read(), name


@needs_raw
def test_dropped_sentences_are_those_that_the_readme_counts():
    n_original = 4200 + 3708
    n_kept = sum(len(read_file(name)) for name in FILES)
    reviews = make_demo.read_rows(os.path.join(RAW, make_demo.REVIEWS), 'review')
    n_wordless = sum(not words_of(row['text']) for row in reviews)
    n_repeats = n_original - n_kept - n_wordless
    with open(os.path.join(FOLDER, 'README.md'), encoding='utf-8') as f:
        readme = ' '.join(f.read().split())
    assert f'is dropped ({n_repeats} sentences)' in readme
    assert f'are dropped as well ({n_wordless} sentences)' in readme


# -----------------------------------------------------------------------------
# the model


PLAIN_SENTENCES = {
    'I love it, thank you so much!': 'positive',
    'Wonderful service, thank you.': 'positive',
    'Thanks, that solved my problem.': 'positive',
}
LABELS_OF_EXAMPLES = ['positive', 'negative', 'neutral', 'negative', 'negative']


@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2, 3])
def test_the_demo_model_reads_plain_sentences(tmp_path, seed):
    """What a newcomer types first; a model that calls thanks negative would end the visit."""
    run(
        'train.py',
        f'{ROOT}/config/train_demo.py',
        f'--out_dir={tmp_path}/run',
        f'--data_dir={tmp_path}/data',
        f'--seed={seed}',
        '--device=cpu',
        '--dtype=float32',
        timeout=900,
    )
    classifier = Classifier(f'{tmp_path}/run', device='cpu', dtype='float32')
    answers = classifier.classify(list(PLAIN_SENTENCES))
    assert [answer['label'] for answer in answers] == list(PLAIN_SENTENCES.values())

    answers = classifier.classify(list(sample_classify.EXAMPLES))
    predictions = [answer['label'] for answer in answers]
    n_right = sum(map(str.__eq__, predictions, LABELS_OF_EXAMPLES))
    assert n_right >= 4, predictions
