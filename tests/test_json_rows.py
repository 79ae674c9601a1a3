# python -m pytest tests/test_json_rows.py
"""JSON that people bring: rows in any layout, and a broken one that takes no other with it."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosentiment.json_rows import find_array_key, read_json_rows, strings_in


def read(content):
    """[(line number, row, reason), ...]"""
    array_key = find_array_key(io.StringIO(content), 'x.json')
    return list(read_json_rows(io.StringIO(content), array_key))


def good_rows(content):
    return [row for _, row, reason in read(content) if not reason]


def reasons_by_line(content):
    return {line: reason for line, _, reason in read(content) if reason}


# -----------------------------------------------------------------------------
# layouts


any_texts = st.text(st.sampled_from('ab "",:\\\r\n\'é’{}[]='), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(any_texts, values, max_size=3),
    max_leaves=6,
)
any_rows = st.lists(
    st.dictionaries(any_texts, json_values, min_size=1, max_size=3), min_size=2, max_size=5
)


@settings(max_examples=100, deadline=None)
@given(
    rows=any_rows,
    layout=st.sampled_from(['array', 'wrapped', 'objects']),
    indent=st.sampled_from([None, 0, 2]),
)
def test_any_rows_come_back_equal(rows, layout, indent):
    if layout == 'array':
        content = json.dumps(rows, indent=indent)
    elif layout == 'wrapped':
        content = json.dumps({'n': 1, 'data': rows}, indent=indent, ensure_ascii=False)
    else:
        content = '\n'.join(json.dumps(row, indent=indent) for row in rows)
    assert good_rows(content) == rows
    assert reasons_by_line(content) == {}


def test_a_value_may_be_longer_than_what_is_read_at_a_time():
    rows = [{'text': 'word ' * n, 'label': 'é' * n} for n in (3, 100_000, 20_000, 1)]
    assert good_rows(json.dumps(rows)) == rows
    assert good_rows(json.dumps({'n': 'x' * 200_000, 'data': rows})) == rows


def test_a_file_without_rows_has_none():
    for content in ('', '\n', '[]', '[\n]\n', '[][]'):
        assert read(content) == []


def test_one_object_of_texts_and_numbers_is_one_row():
    """A list among them is a value like others: this row has spans."""
    row = {'text': 'late', 'label': 1, 'spans': [1, 2]}
    assert good_rows(json.dumps(row, indent=2)) == [row]


def test_rows_in_several_arrays_are_refused():
    content = json.dumps({'train': [{'text': 'a'}], 'test': [{'text': 'b'}]})
    with pytest.raises(ValueError, match='x.json holds 2 arrays of rows: train, test; save each'):
        read(content)


def test_the_columns_of_pandas_are_refused_with_the_remedy():
    """df.to_json('x.json') writes an object for each column, unless it is told otherwise."""
    content = '{"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}'
    with pytest.raises(ValueError, match="one object without an array.*orient='records'"):
        read(content)


# -----------------------------------------------------------------------------
# broken rows


def test_a_broken_row_costs_only_itself():
    lines = [
        '{"text": "a"}',
        '[1]',
        '{"text"',
        '',
        'garbage',
        '{"text": "b" "label": 1}',
        '{"text": "c}',
        '[' * 100_000,
        '{"n": ' + '9' * 10_000 + '}',
        '{"text": "d"}',
        '{"text": "e"',
    ]
    content = '\n'.join(lines)
    assert good_rows(content) == [{'text': 'a'}, {'text': 'd'}]
    assert reasons_by_line(content) == {
        2: 'not a JSON object: a list',
        3: "not a JSON object: expecting ':' delimiter",
        5: 'not a JSON object: expecting value',
        6: "not a JSON object: expecting ',' delimiter",
        7: 'not a JSON object: invalid control character',
        8: 'not a JSON object: too deep or too long',
        9: 'not a JSON object: too deep or too long',
        11: "not a JSON object: expecting ',' delimiter",
    }


@pytest.mark.parametrize('indent', [None, 0, 4])
def test_a_broken_row_of_an_array_costs_only_itself(indent):
    rows = [{'text': str(i), 'label': 'pos'} for i in range(5)]
    content = json.dumps(rows, indent=indent).replace('"2", ', '"2" ').replace('"2",', '"2"')
    assert [row['text'] for row in good_rows(content)] == ['0', '1', '3', '4']
    assert len(reasons_by_line(content)) == 1


def test_a_file_that_was_cut_off_is_read_up_to_there():
    content = json.dumps([{'text': 'a'}, {'text': 'b'}, {'text': 'c'}])
    content = content[:-8]
    assert good_rows(content) == [{'text': 'a'}, {'text': 'b'}]
    assert len(reasons_by_line(content)) == 1


def test_the_strings_of_a_value_are_its_keys_and_texts_however_deep():
    """Each may hold a character that cannot be written, also one of a list in a list."""
    value = {'a': 'b', 'c': [1, ['d', {'e': None}]]}
    assert sorted(strings_in(value)) == ['a', 'b', 'c', 'd', 'e']
