"""A label is one text, however it is written; several labels in one are not taken for one."""

import pytest

from nanosentiment.labels import (
    canonical_label,
    describe_labels,
    label_order,
    parse_label_names,
    shorten,
    shorten_line,
)


@pytest.mark.parametrize(
    'written, label',
    [
        ('1', '1'),
        ('1.0', '1'),
        (' -1.00 ', '-1'),
        ('True', 'true'),
        ('FALSE', 'false'),
        ('1.5', '1.5'),
        ('01', '01'),  # a code
        ('1.0.0', '1.0.0'),  # a version
        ('Truely', 'Truely'),
    ],
)
def test_a_label_is_the_same_however_it_is_written(written, label):
    """Otherwise a test file by pandas has only labels that training does not know."""
    assert canonical_label(written) == label


def test_labels_get_names():
    assert parse_label_names('') == {}
    assert parse_label_names('0=negative, 1.0 = very good,true=yes') == {
        '0': 'negative',
        '1': 'very good',
        'true': 'yes',
    }


@pytest.mark.parametrize('text', ['negative', '0=', '=a', '0=a,0.0=b'])
def test_what_names_no_label_is_refused(text):
    with pytest.raises(ValueError, match='label_names='):
        parse_label_names(text)


def test_numbers_are_sorted_by_value():
    assert sorted(['10', '2', 'a', '-1'], key=label_order) == ['-1', '2', '10', 'a']


# -----------------------------------------------------------------------------
# columns that hold no single label


@pytest.mark.parametrize(
    'labels',
    [
        ['toxic', 'spam', 'toxic,spam'],
        ['toxic,spam', 'toxic,joke', 'spam,joke'],
        ['a|b', 'b|c', 'c|a'],
        ["['toxic']", "['spam']", "['toxic', 'spam']"],
        ['[]', "['toxic']"],
    ],
)
def test_several_labels_in_one_are_said(labels):
    """Each combination would be a class of its own, in silence."""
    (note,) = describe_labels(dict.fromkeys(labels, 9))
    assert 'several labels in one' in note


@pytest.mark.parametrize(
    'labels',
    [
        ['Trinidad, Tobago', 'Chile'],
        ['cost; price', 'speed', 'quality'],
        ['negative', 'positive'],
        ['(1)', 'b'],
    ],
)
def test_a_name_with_a_comma_is_one_label(labels):
    assert describe_labels(dict.fromkeys(labels, 9)) == []


def test_other_columns_of_zeros_and_ones_are_said():
    """Somebody who has one column for each label learns one of them here."""
    counts = {'0': 30, '1': 10}
    (note,) = describe_labels(counts, ['spam', 'joke'], 'toxic')
    assert note.startswith('spam, joke also hold only 0 and 1, like toxic')
    assert describe_labels({'a': 30, 'b': 10}, ['spam'], 'mood') == []


def test_a_quantity_is_said():
    """A price is no class: 1 and 2 would be as far apart as 1 and 900."""
    prices = {f'{n}.{n % 9 + 1}': 20 for n in range(50)}
    (note,) = describe_labels(prices)
    assert 'a quantity' in note
    categories = {str(n): 20 for n in range(50)}
    assert describe_labels(categories) == []


def test_labels_with_one_row_are_said():
    (note,) = describe_labels({'a': 1, 'b': 7, 'c': 1})
    assert note.startswith('2 of 3 labels have one row only (a, c)')


def test_a_long_list_is_cut_to_a_few_names():
    assert shorten(['a', 'b', 'c'], 2) == 'a, b and 1 more'
    assert shorten(['a', 'b'], 2) == 'a, b'


def test_a_long_line_is_shortened():
    shortened = shorten_line('one\ntwo ' * 100, 40)
    assert len(shortened) == 40
    assert shortened.startswith('one two one')
    assert shortened.endswith('...')
    assert shorten_line('fine', 40) == 'fine'
