# python -m pytest tests/test_tables.py
"""Rows of raw files: none is lost without a reason, and none is read as something else."""

import csv
import os
from collections import Counter

import pytest

from nanosentiment.tables import read_rows

RAW = os.environ.get('NANOSENTIMENT_RAW')


def good_rows(path):
    return [row for _, row, reason in read_rows(str(path)) if not reason]


def rejected_rows(path):
    return [(line, reason) for line, _, reason in read_rows(str(path)) if reason]


# -----------------------------------------------------------------------------
# .csv


def test_a_broken_row_costs_only_itself(tmp_path):
    """In most readers an open quote swallows the rest of the file, and a bad byte stops them."""
    lines = [
        'body,mood',
        'one,a',
        '"open,b',  # line 3
        'two,a',
        '"three ""q""\nlines",b',
        'four,a,more',  # line 7
        '"x"y,a',  # line 8
        'nul\0,a',  # line 9
        'latin,a',  # line 10
        'five,b',
        '',
        '"six, 6",a',
        '"end',  # line 14
    ]
    content = '\n'.join(lines).encode().replace(b'latin', b'caf\xe9')
    path = tmp_path / 'bad.csv'
    path.write_bytes(content)

    bodies = [row['body'] for row in good_rows(path)]
    assert bodies == ['one', 'two', 'three "q"\nlines', 'five', 'six, 6']

    reasons = dict(rejected_rows(path))
    assert list(reasons) == [3, 7, 8, 9, 10, 14]
    for line in (3, 8, 14):
        assert reasons[line].startswith('broken quoting: ')
    assert reasons[7] == '3 fields, the header has 2'
    assert reasons[9] == 'NUL byte'
    assert reasons[10] == 'not UTF-8'


def test_many_open_quotes_are_read(tmp_path):
    """After an open quote reading goes back to the next line, for thousands of them too."""
    path = tmp_path / 'bad.csv'
    path.write_text('body,mood\n' + '"open,a\n' * 3000 + 'fine,b\n' * 2000)
    assert len(good_rows(path)) == 2000
    assert len(rejected_rows(path)) == 3000


@pytest.mark.parametrize('line_end', ['\n', '\r\n'])
@pytest.mark.parametrize('byte_order_mark', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_spreadsheets_are_read(tmp_path, line_end, byte_order_mark, delimiter):
    """Excel writes a byte order mark, CRLF and, in half of Europe, semicolons."""
    lines = [
        'body;mood;n',
        '"two; or\n\nthree, lines";a;1',
        'plain;b;2',
        '"quote ""d""";a;',
        'last;é;3',
    ]
    text = line_end.join(line.replace(';', delimiter) for line in lines)
    path = tmp_path / 'x.csv'
    path.write_bytes(byte_order_mark + text.encode())

    first, second, third, last = good_rows(path)
    assert first == {'body': f'two{delimiter} or\n\nthree, lines', 'mood': 'a', 'n': '1'}
    assert second == {'body': 'plain', 'mood': 'b', 'n': '2'}
    assert third == {'body': 'quote "d"', 'mood': 'a', 'n': ''}
    assert last == {'body': 'last', 'mood': 'é', 'n': '3'}


def test_empty_lines_before_the_header_do_not_matter(tmp_path):
    path = tmp_path / 'x.csv'
    path.write_text('\n\nbody;mood\nfine;a\n')
    assert list(read_rows(str(path))) == [(4, {'body': 'fine', 'mood': 'a'}, '')]


@pytest.mark.parametrize('text', ['word ' * 250_000, 'say "x"\n' * 150_000])
def test_a_field_may_hold_a_megabyte(tmp_path, text):
    """The csv module stops at 131,072 characters."""
    path = tmp_path / 'x.csv'
    with open(path, 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([('body', 'mood'), (text, 'a'), ('short', 'b')])
    assert [row['body'] for row in good_rows(path)] == [text, 'short']


def test_columns_of_the_same_name_are_numbered(tmp_path):
    """The first keeps its name, because that is the one a user means. Blanks do not count."""
    path = tmp_path / 'x.csv'
    path.write_text('mood,id, mood\nfirst,1,second\n')
    assert good_rows(path) == [{'mood': 'first', 'id': '1', 'mood.2': 'second'}]
    path.write_text('mood,mood.2,mood\nfirst,second,third\n')
    assert list(good_rows(path)[0].values()) == ['first', 'second', 'third']


def test_a_broken_header_is_an_error(tmp_path):
    """Otherwise the first row would silently become the header."""
    path = tmp_path / 'x.csv'
    path.write_text('\n"body,mood\nfine,a\n')
    message = 'x.csv: the header in line 2 cannot be read .broken quoting: .*; correct it'
    with pytest.raises(ValueError, match=message):
        list(read_rows(str(path)))


@pytest.mark.parametrize(
    'header, reason', [('gr\xf6\xdfe,mood', 'not UTF-8'), ('bo\0dy,mood', 'NUL byte')]
)
def test_a_flawed_header_is_an_error(tmp_path, header, reason):
    """All rows would have its flaw in the name of a column."""
    path = tmp_path / 'x.csv'
    path.write_bytes(f'{header}\nfine,a\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=f'x.csv: the header in line 1 cannot be read .{reason}'):
        list(read_rows(str(path)))


# -----------------------------------------------------------------------------
# .tsv and .jsonl


def test_a_tsv_has_no_quotes(tmp_path):
    """SST-2 is full of single quote characters; a CSV reader would join hundreds of its rows."""
    path = tmp_path / 'x.tsv'
    path.write_text('body\tmood\n"open\ta\nit \'s "fine" , really\tb\nthree\ta\tb\n\tb\n')
    assert [row['body'] for row in good_rows(path)] == ['"open', 'it \'s "fine" , really', '']
    assert rejected_rows(path) == [(4, '3 fields, the header has 2')]


def test_a_tsv_is_not_separated_by_commas(tmp_path):
    path = tmp_path / 'x.tsv'
    path.write_text('body, as said, or so\tmood\nfine\tb\n')
    assert good_rows(path) == [{'body, as said, or so': 'fine', 'mood': 'b'}]


@pytest.mark.skipif(not RAW, reason='NANOSENTIMENT_RAW names no folder with the real data')
@pytest.mark.parametrize('name, n_rows', [('train.tsv', 67349), ('dev.tsv', 872)])
def test_all_rows_of_sst2_are_read(name, n_rows):
    reasons = Counter(reason for _, _, reason in read_rows(f'{RAW}/sst2/{name}'))
    assert reasons == {'': n_rows}


def test_a_jsonl_is_read(tmp_path):
    """Numbers, nulls and missing keys are ordinary there; an empty last line is no broken row."""
    lines = [
        '{"body": "a\\n\\"b\\"", "mood": 1}',
        '{"mood": 0, "body": "é", "more": 2}',
        '{"body": null}',
        '[1]',
        '{"body"',
        '',
        '{"body": "\\ud800", "mood": 1}',
        '[' * 100_000,
        '{"mood": true, "body": "c"}',
        '',
    ]
    path = tmp_path / 'x.jsonl'
    path.write_text('\n'.join(lines), encoding='utf-8')

    assert good_rows(path) == [
        {'body': 'a\n"b"', 'mood': '1'},
        {'mood': '0', 'body': 'é', 'more': '2'},
        {'body': ''},
        {'mood': 'True', 'body': 'c'},
    ]
    assert rejected_rows(path) == [
        (4, 'not a JSON object'),
        (5, 'not a JSON object'),
        (7, 'not UTF-8'),
        (8, 'not a JSON object'),
    ]


def test_a_bad_key_costs_only_its_own_row(tmp_path):
    """Otherwise all rows after it would be rejected for a key that they do not have."""
    path = tmp_path / 'x.jsonl'
    path.write_text('{"text": "a"}\n{"text": "b", "\\ud800": 1}\n{"text": "c"}\n')
    assert good_rows(path) == [{'text': 'a'}, {'text': 'c'}]
    assert rejected_rows(path) == [(2, 'not UTF-8')]
