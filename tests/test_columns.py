"""The text and the label of a row are found in the same way by every script."""

from types import SimpleNamespace

import pytest

from nanosentiment.columns import (
    check_columns,
    check_keys,
    find_columns,
    parse_columns,
    row_label,
    row_text,
)


def test_several_columns_are_separated_by_commas():
    assert parse_columns('title, body', ['id', 'title', 'body']) == ['title', 'body']
    assert parse_columns('title, body', ['title, body']) == ['title, body']


def test_several_columns_are_one_text():
    """A review's title often says more than its body; an empty one leaves no blank line."""
    columns = ['title', 'body']
    assert row_text({'title': ' Hated it ', 'body': 'Late.'}, columns) == ('Hated it\nLate.', '')
    assert row_text({'title': '', 'body': 'Late.'}, columns) == ('Late.', '')
    assert row_text({'title': ' ', 'body': None}, columns) == ('', 'no text')
    assert row_text({}, columns) == ('', 'no text')


def test_a_list_is_no_text_and_no_label():
    """Its Python form, brackets and quotes included, would be learned otherwise."""
    row = {'text': ['a', 'b'], 'label': ['x']}
    assert row_text(row, ['text']) == ('', 'text is a list, where one text is needed')
    assert row_label(row, 'label', {}) == ('', 'label is a list, where one text is needed')


@pytest.mark.parametrize('value', ['1', '1.0', 1, 1.0, ' 1 '])
def test_a_label_may_be_a_number(value):
    assert row_label({'label': value}, 'label', {}) == ('1', '')
    assert row_label({'label': value}, 'label', {'1': 'positive'}) == ('positive', '')


def test_a_label_may_be_a_truth_value_or_missing():
    assert row_label({'label': True}, 'label', {}) == ('true', '')
    assert row_label({'label': 'True'}, 'label', {}) == ('true', '')
    assert row_label({'label': None}, 'label', {}) == ('', 'no label')
    assert row_label({}, 'label', {}) == ('', 'no label')


def test_a_missing_column_is_named_with_those_that_there_are():
    table = SimpleNamespace(path='a.csv', columns=['id', 'body'], is_json=False)
    check_columns(table, 'text_column', ['id', 'body'])
    with pytest.raises(ValueError, match="no column 'text'; set --text_column to one of id, body"):
        check_columns(table, 'text_column', ['body', 'text'])


def test_a_row_of_json_may_lack_a_key():
    check_columns(SimpleNamespace(path='a.jsonl', columns=['id'], is_json=True), 'x', ['text'])


def test_a_key_that_no_row_of_json_has_is_named_at_the_end():
    table = SimpleNamespace(path='a.jsonl', columns=['id', 'body'], is_json=True)
    check_keys(table, {'text_column': ['id', 'body']})
    message = "a.jsonl: no row has the key 'mood'; set --label_column to one of id, body"
    with pytest.raises(ValueError, match=message):
        check_keys(table, {'text_column': ['body'], 'label_column': ['mood']})


def make_table(columns, kind='csv', notes=()):
    return SimpleNamespace(
        path='a.csv', columns=columns, kind=kind, is_json=kind == 'json', notes=list(notes)
    )


def test_columns_go_by_the_setting_that_names_them():
    """So that an error can say which setting to correct."""
    columns = {'text_column': ['title', 'body'], 'label_column': ['mood']}
    table = make_table(['title', 'body', 'mood', 'part'])
    assert find_columns(table, 'title, body', 'mood') == columns
    with_split = columns | {'split_column': ['part']}
    assert find_columns(table, 'title, body', 'mood', 'part') == with_split


@pytest.mark.parametrize(
    'table, message',
    [
        (make_table(['body'], kind='txt'), 'a.csv is read as plain text'),
        (make_table([]), 'a.csv is empty'),
        (
            make_table(['body'], notes=['the first row looks odd']),
            "'mood'; .*; the first row looks",
        ),
        (make_table(['mood']), "no column 'body'"),
    ],
)
def test_a_table_without_text_or_label_is_refused_before_its_rows(table, message):
    with pytest.raises(ValueError, match=message):
        find_columns(table, 'body', 'mood')


def test_a_label_is_no_part_of_the_text():
    """It would be learned at once, and be missing when the model is used."""
    with pytest.raises(ValueError, match="both name 'mood'"):
        find_columns(make_table(['body', 'mood']), 'body,mood', 'mood')
