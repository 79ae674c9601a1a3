# python -m pytest tests/test_demo.py
"""The bundled demo data: well formed, and its test rows are out of the generator's reach."""

import csv
import importlib.util
import os
import re
from collections import Counter

import pytest
from conftest import ROOT

FOLDER = os.path.join(ROOT, 'data', 'demo')
COLUMNS = [
    'issue_area',
    'issue_category',
    'issue_sub_category',
    'issue_category_sub_category',
    'customer_sentiment',
    'product_category',
    'product_sub_category',
    'issue_complexity',
    'agent_experience_level',
    'agent_experience_level_desc',
    'conversation',
]
SENTIMENT = COLUMNS.index('customer_sentiment')
CONVERSATION = COLUMNS.index('conversation')

spec = importlib.util.spec_from_file_location('make_demo', os.path.join(FOLDER, 'make_demo.py'))
make_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_demo)


def read_file(name):
    """The rows of a file, of which the first is the header."""
    with open(os.path.join(FOLDER, name), encoding='utf-8', newline='') as f:
        return list(csv.reader(f))


def customer_sentences(rows):
    """The sentences of the customers' turns, without case and punctuation."""
    sentences = set()
    for row in rows:
        for turn in row[CONVERSATION].split('\n\n'):
            if not turn.startswith('Customer:'):
                continue
            for sentence in re.split(r'[.?!]', turn.removeprefix('Customer:')):
                words = re.sub(r'[^a-z0-9 ]', '', sentence.lower()).split()
                sentences.add(' '.join(words))
    return sentences - {''}


def test_train_csv_is_what_the_generator_writes(tmp_path):
    """Who doubts the data can remake it: same seed, same bytes, on any machine."""
    path = tmp_path / 'train.csv'
    with open(path, 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows([make_demo.COLUMNS, *make_demo.make()])
    with open(os.path.join(FOLDER, 'train.csv'), 'rb') as f:
        assert path.read_bytes() == f.read()


@pytest.mark.parametrize('name', ['train.csv', 'test.csv'])
def test_both_files_have_the_eleven_columns(name):
    """prepare.py reads demo and customer_service alike, so their form must be the same."""
    header, *rows = read_file(name)
    assert header == COLUMNS
    for row in rows:
        assert len(row) == len(COLUMNS)
        assert all(cell.strip() for cell in row)


@pytest.mark.parametrize('name', ['train.csv', 'test.csv'])
def test_rows_end_with_crlf_and_two_line_ends_separate_turns(name):
    """In customer_service the same line ends made other programs lose every customer turn."""
    header, *rows = read_file(name)
    with open(os.path.join(FOLDER, name), 'rb') as f:
        assert f.read().count(b'\r\n') == len([header, *rows])
    for row in rows:
        assert '\r' not in row[CONVERSATION]
        turns = row[CONVERSATION].split('\n\n')
        for turn in turns:
            assert '\n' not in turn
            assert re.match(r'(Agent|Customer|Supervisor): \S', turn)
        assert any(turn.startswith('Customer: ') for turn in turns)


def test_test_labels_are_balanced_and_train_labels_are_not():
    """The training file has few positives; a balanced test shows whether they were learned."""
    test_counts = Counter(row[SENTIMENT] for row in read_file('test.csv')[1:])
    assert set(test_counts) == {'negative', 'neutral', 'positive'}
    assert len(set(test_counts.values())) == 1
    assert min(test_counts.values()) >= 20

    train_counts = Counter(row[SENTIMENT] for row in read_file('train.csv')[1:])
    assert set(train_counts) == set(test_counts)
    n = train_counts.total()
    assert train_counts['positive'] < 0.12 * n
    assert 0.3 * n < train_counts['negative'] < train_counts['neutral']


def test_no_test_sentence_is_in_the_training_file():
    """An accuracy on sentences that are known from training would say nothing."""
    test_sentences = customer_sentences(read_file('test.csv')[1:])
    train_sentences = customer_sentences(read_file('train.csv')[1:])
    assert len(test_sentences) > 90
    assert len(train_sentences) > 1000
    assert not test_sentences & train_sentences


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(5))
def test_no_test_sentence_can_be_generated(seed):
    """Other seeds stand for all that the generator can say."""
    test_sentences = customer_sentences(read_file('test.csv')[1:])
    assert not test_sentences & customer_sentences(make_demo.make(seed))


def test_the_demo_data_stay_small():
    """Everybody who clones the project gets them, so they stay under a megabyte."""
    names = ('make_demo.py', 'train.csv', 'test.csv', 'README.md')
    assert sum(os.path.getsize(os.path.join(FOLDER, name)) for name in names) < 1_000_000
