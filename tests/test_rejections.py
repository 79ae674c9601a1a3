# python -m pytest tests/test_rejections.py
"""Rows that cannot be used: one line tells how many, why, of which label, and what helps."""

import pytest

from nanosentiment.rejections import (
    Rejections,
    compare_labels,
    describe_rejected,
    describe_remedy,
    has_too_many,
)

COLUMNS = {'text_column': 'title,body', 'label_column': 'mood (1)', 'split_column': 'part'}


def make_rejections(n_rows, rows):
    """Rejections of a file of n_rows, of which these (line number, reason, label) are lost."""
    rejections = Rejections(COLUMNS)
    rejections.n_rows = n_rows
    for row in rows:
        rejections.add(*row)
    return rejections


def test_a_file_without_lost_rows_has_nothing_to_tell():
    summary = make_rejections(80, []).summary({'a': 80})
    assert summary == {'rows': 80, 'rejected': 0}
    assert not has_too_many(summary, max_rejected=0.0)


def test_reasons_that_differ_in_a_number_are_one_kind():
    """Counted one by one, the cause of most losses would be behind a smaller one."""
    rows = [(2, 'no text', 'a'), (3, 'no text', 'b')]
    rows += [(4 + i, f'{3 + i} fields instead of 2', '') for i in range(3)]
    summary = make_rejections(80, rows).summary({'a': 38, 'b': 37})
    assert summary['reason'] == '3 fields instead of 2'
    assert summary['with_reason'] == 3
    assert describe_rejected('x.csv', summary, 'out/rejected.csv') == (
        'x.csv: 5 of 80 rows cannot be used: 3 fields instead of 2 (3 rows, the first in line 4) '
        'and other reasons; the list is out/rejected.csv'
    )


def test_a_line_without_a_list_names_none():
    """evaluate.py writes no list of the rows that it leaves out."""
    summary = make_rejections(80, [(2, 'no text', 'a')]).summary({'a': 79})
    assert describe_rejected('x.csv', summary) == (
        'x.csv: 1 of 80 rows cannot be used: no text (1 row, the first in line 2)'
    )


@pytest.mark.parametrize(
    'reason, remedy',
    [
        ('mood (1) is a list, where one text is needed', 'single-label tool'),
        ('mood (1) is an object with the keys a, where one text is needed', 'single-label tool'),
        ('body is a list, where one text is needed', 'write the text as one string'),
        ('body is an object with the keys a, where one text is needed', 'json_normalize'),
        ('no text', 'is --text_column=title,body right?'),
        ('no label', 'is --label_column=mood (1) right?'),
        ('not a JSON object: a list', '{"text": "...", "label": "..."}'),
        ('not UTF-8', 'set --encoding'),
        ('NUL byte', 'in UTF-8'),
        ('half of a character (a lone surrogate)', 'emoji'),
        ('broken quoting: a quote is never closed', 'close the quote'),
        ('broken quoting: 5 fields instead of 3', 'set --delimiter'),
        ('5 fields instead of 3', 'set --delimiter'),
        ("part says 'x', which is none of train, validation and test", '--split_column=part'),
        ("label 'x' is unknown to training", '--label_names'),
    ],
)
def test_each_reason_has_a_remedy(reason, remedy):
    """These are the reasons of tables.py, columns.py and scanning.py."""
    summary = make_rejections(3, [(2, reason, '')]).summary({'a': 2})
    assert remedy in describe_remedy(summary)


def test_a_reason_without_a_remedy_is_told_as_well():
    summary = make_rejections(3, [(2, 'something new', '')]).summary({'a': 2})
    assert summary['reason'] == 'something new'
    assert describe_remedy(summary) == 'to go on without these rows, set --max_rejected=0.34'


@pytest.mark.parametrize('n_lost', range(1, 40))
def test_the_proposed_limit_is_enough(n_lost):
    """A share that was rounded down would be refused again."""
    summary = make_rejections(41, [(2, 'no text', '')] * n_lost).summary({'a': 41 - n_lost})
    assert has_too_many(summary, max_rejected=0.02)
    proposed = describe_remedy(summary).rpartition('=')[2]
    assert not has_too_many(summary, float(proposed))


def test_nobody_is_told_to_go_on_without_any_row():
    summary = make_rejections(3, [(2, 'no text', 'a')] * 3).summary({})
    assert '--max_rejected' not in describe_remedy(summary)


def test_labels_are_compared_only_if_chance_does_not_explain_them():
    assert compare_labels({'neg': 13}, {'neg': 27, 'pos': 40}) == [['neg', 13, 40], ['pos', 0, 40]]
    assert compare_labels({'neg': 7, 'pos': 6}, {'neg': 33, 'pos': 34}) == []
    assert compare_labels({'neg': 1}, {'neg': 39, 'pos': 40}) == []
    assert compare_labels({}, {'neg': 40, 'pos': 40}) == []
    assert compare_labels({'neg': 40}, {}) == []


def test_a_label_that_is_lost_altogether_comes_first():
    """It is the worst loss, and no usable row shows that there was this label."""
    shares = compare_labels({'meh': 20}, {'neg': 40, 'pos': 40})
    assert shares[0] == ['meh', 20, 20]


def test_of_many_labels_the_extremes_are_shown():
    rejected = {f'label {i}': i for i in range(20)}
    usable = {f'label {i}': 40 - i for i in range(20)}
    shares = compare_labels(rejected, usable)
    assert [n for _, n, _ in shares] == [19, 18, 17, 16, 0]
    assert compare_labels({f'label {i}': 1 for i in range(501)}, {}) == []


def test_any_number_of_labels_fits_into_memory():
    rows = [(i, 'no text', f'label {i}') for i in range(10_000)]
    rejections = make_rejections(10_000, rows)
    assert len(rejections.labels) < 1000
    assert rejections.summary({})['rejected'] == 10_000
