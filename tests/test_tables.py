# python -m pytest tests/test_tables.py
# python -m pytest tests/test_tables.py -m stress    # many more random tables
"""Tables that people bring: no row is lost without a reason, and none is read as something else."""

import csv
import gzip
import io
import itertools
import json
import os
import time
import tracemalloc
from collections import Counter

import pytest
from conftest import in_time
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nanosentiment import tables
from nanosentiment.tables import Table, cell_text

RAW = os.environ.get('NANOSENTIMENT_RAW')

# what most tests read: the texts hold what might be taken for something else
HEADER = ('text', 'label')
ROWS = [
    ('late, and the app was useless', 'neg'),
    ('the agent was lovely', 'pos'),
    ('never again', 'neg'),
    ('quick; and friendly', 'pos'),
]


@pytest.fixture
def save(tmp_path):
    """save('x.csv', text or bytes) -> the path of a new file."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        return str(path)

    return write


def good_rows(path, **flags):
    return [row for _, row, reason in Table(path, **flags) if not reason]


def good_cells(path, **flags):
    """Rows as tuples, without the names of the columns."""
    return [tuple(row.values()) for row in good_rows(path, **flags)]


def reasons_by_line(path, **flags):
    return {line: reason for line, _, reason in Table(path, **flags) if reason}


def to_csv(rows, **dialect):
    """Rows as the csv module writes them, and pandas with it."""
    f = io.StringIO(newline='')
    csv.writer(f, **dialect).writerows(rows)
    return f.getvalue()


# -----------------------------------------------------------------------------
# encodings


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32', 'cp1252'])
@pytest.mark.parametrize('name, delimiter', [('x.csv', ','), ('x.tsv', '\t')])
def test_the_encodings_that_excel_writes_are_recognised(save, encoding, name, delimiter):
    """Its "CSV" is cp1252, its "CSV UTF-8" has a byte order mark, its "Unicode text" is UTF-16."""
    rows = [('the app wasn’t “great”', 'neg'), ('a lovely café', 'pos')]
    text = to_csv([HEADER, *rows], delimiter=delimiter)
    assert good_cells(save(name, text.encode(encoding))) == rows


def test_cp1252_is_said_because_it_is_a_guess(save):
    rows = to_csv([HEADER, ('a lovely café', 'pos')])
    (note,) = Table(save('x.csv', rows.encode('cp1252'))).notes
    assert note == 'read as cp1252, because it is not UTF-8; if letters look wrong, set --encoding'
    assert Table(save('y.csv', rows.encode())).notes == []


def test_letters_that_are_not_western_are_said(save):
    """Russian or Chinese text becomes French letters in cp1252, and nobody should train on it."""
    path = save('x.csv', to_csv([HEADER, ('очень хорошо', 'pos')]).encode('cp1251'))
    (note,) = Table(path).notes
    assert 'its letters are not Western: set --encoding' in note
    assert good_cells(path, encoding='cp1251') == [('очень хорошо', 'pos')]
    assert Table(path, encoding='cp1251').notes == []


def test_the_bytes_that_cp1252_lacks_are_read_as_by_browsers(save):
    path = save('x.csv', b'text,label\ncaf\xe9 \x81,pos\n')
    assert good_cells(path) == [('café \x81', 'pos')]


def test_a_few_broken_bytes_do_not_garble_a_utf8_file(save):
    """As cp1252 all other rows would read 'cafÃ©'. So the broken row is rejected instead."""
    rows = ''.join(f'café {i},pos\n' for i in range(50))
    path = save('x.csv', f'text,label\n{rows}'.encode() + b'caf\xe9 50,pos\n')
    assert good_cells(path) == [(f'café {i}', 'pos') for i in range(50)]
    assert reasons_by_line(path) == {52: 'not UTF-8'}
    assert Table(path).notes == []


def test_a_wrong_encoding_costs_only_the_rows_that_have_such_bytes(save):
    path = save('x.csv', b'text,label\ncaf\xe9,pos\nlate,neg\n')
    assert good_cells(path, encoding='utf-8') == [('late', 'neg')]
    assert reasons_by_line(path, encoding='utf-8') == {2: 'not utf-8'}


def test_the_rest_of_a_row_that_cannot_be_decoded_can_be_written(save):
    """sample_classify writes it out again, with its id and without an answer."""
    path = save('x.csv', b'id,text\n7,caf\xe9\n')
    ((_, row, _),) = Table(path, encoding='utf-8')
    assert row == {'id': '7', 'text': 'caf\ufffd'}


def test_utf16_without_a_byte_order_mark_is_recognised(save):
    for encoding in ('utf-16-le', 'utf-16-be'):
        path = save('x.csv', to_csv([HEADER, *ROWS]).encode(encoding))
        assert good_cells(path) == ROWS


@pytest.mark.parametrize('encoding', ['no-such', 'base64', 'idna'])
def test_an_unknown_encoding_is_an_error(save, encoding):
    with pytest.raises(ValueError, match=f"encoding '{encoding}' is unknown; set --encoding"):
        Table(save('x.csv', 'text\na\n'), encoding=encoding)


# -----------------------------------------------------------------------------
# delimiters


@pytest.mark.parametrize('name', ['x.csv', 'x.tsv', 'x'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t', '|'])
def test_the_delimiter_is_found(save, name, delimiter):
    path = save(name, to_csv([HEADER, *ROWS], delimiter=delimiter))
    assert good_cells(path) == ROWS


def test_a_delimiter_that_is_frequent_in_texts_is_not_taken(save):
    """There are more commas than semicolons, in the header too, but not the same on each line."""
    text = 'text, as given, in full;label\nwell, yes;pos\nno, no, no, never;neg\nfine;pos\n'
    path = save('x.csv', text)
    assert good_cells(path) == [('well, yes', 'pos'), ('no, no, no, never', 'neg'), ('fine', 'pos')]


@pytest.mark.parametrize('delimiter, character', [('tab', '\t'), ('\\t', '\t'), ('~', '~')])
def test_the_delimiter_can_be_set(save, delimiter, character):
    """With tab a .txt is a table too: that is what Excel calls its "Unicode text"."""
    path = save('x.txt', to_csv([HEADER, *ROWS], delimiter=character))
    assert good_cells(path, delimiter=delimiter) == ROWS


@pytest.mark.parametrize('delimiter', [',,', '"', '\n'])
def test_a_delimiter_that_cannot_be_is_an_error(save, delimiter):
    with pytest.raises(ValueError, match='cannot separate columns; set --delimiter'):
        Table(save('x.csv', 'text\na\n'), delimiter=delimiter)


@pytest.mark.parametrize('first_line', ['sep=;', '"sep=;"', 'SEP=;'])
def test_a_sep_line_is_no_row(save, first_line):
    """Excel writes and wants it where a comma is the decimal mark."""
    path = save('x.csv', f'{first_line}\r\ntext;label\r\n1,5 stars;neg\r\n')
    assert list(Table(path)) == [(3, {'text': '1,5 stars', 'label': 'neg'}, '')]


def test_a_tsv_with_commas_is_read_and_said(save):
    table = Table(save('x.tsv', 'text,label\nlate,neg\n'))
    assert [row for _, row, _ in table] == [{'text': 'late', 'label': 'neg'}]
    assert table.notes == ["its columns are separated by ',' and not by tabs"]


def test_a_tsv_is_not_separated_by_the_commas_of_its_header(save):
    path = save('x.tsv', 'body, as said, or so\tmood\nfine\tb\n')
    assert good_rows(path) == [{'body, as said, or so': 'fine', 'mood': 'b'}]


def test_a_file_with_one_column_may_have_any_texts(save):
    """A list of texts to classify; people write it by hand, without quotes around commas."""
    path = save('x.csv', 'text\nlate, and rude\n"quick, and friendly"\na; b\n')
    assert good_cells(path) == [('late, and rude',), ('quick, and friendly',), ('a; b',)]


# -----------------------------------------------------------------------------
# quotes


def test_a_broken_row_costs_only_itself(save):
    """In most readers an open quote swallows the rest of the file, and a bad byte stops them."""
    lines = [
        'body,mood',
        'one,a',
        '"open,b',  # line 3
        'two,a',
        '"three ""q""\nlines",b',
        'four,a,more',  # line 7
        'nul\0,a',  # line 8
        'latin,a',  # line 9
        'five,é',
        '',
        '"six, 6",a',
        '"end',  # line 13
    ]
    path = save('bad.csv', '\n'.join(lines).encode().replace(b'latin', b'caf\xe9'))

    bodies = [row['body'] for row in good_rows(path)]
    assert bodies == ['one', 'two', 'three "q"\nlines', 'five', 'six, 6']
    assert reasons_by_line(path) == {
        3: 'broken quoting: a quote is never closed',
        7: '3 fields instead of 2',
        8: 'NUL byte',
        9: 'not UTF-8',
        13: 'broken quoting: a quote is never closed',
    }


def test_an_open_quote_that_a_later_one_closes_swallows_no_row(save):
    """A row with too few fields is filled, but not one that spans complete rows."""
    path = save('x.csv', 'text,label\n"open,a\ntwo,b\nthree,c\nfour,d"\nfive,e\n')
    assert reasons_by_line(path) == {2: 'broken quoting: a quote is never closed'}
    assert good_cells(path) == [('two', 'b'), ('three', 'c'), ('four', 'd"'), ('five', 'e')]
    path = save('x.csv', 'text,label\n"open,a\ntwo,b\na 5", or 6", screen,c\n')
    assert good_cells(path) == [('two', 'b')]
    assert list(reasons_by_line(path)) == [2, 4]


def test_many_open_quotes_are_read(save):
    """After an open quote reading goes back to the next line, for thousands of them too."""
    path = save('bad.csv', 'body,mood\n' + '"open,a\n' * 3000 + 'fine,b\n' * 2000)
    start = time.perf_counter()
    assert len(good_rows(path)) == 2000
    in_time(time.perf_counter() - start, 2)
    assert len(reasons_by_line(path)) == 3000


@pytest.mark.parametrize('line_end', ['\n', '\r\n'])
@pytest.mark.parametrize('byte_order_mark', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_spreadsheets_are_read(save, line_end, byte_order_mark, delimiter):
    """Excel writes a byte order mark, CRLF and, in half of Europe, semicolons."""
    lines = [
        'body;mood;n',
        '"two; or\n\nthree, lines";a;1',
        'plain;b;2',
        '"quote ""d""";a;',
        'last;é;3',
    ]
    text = line_end.join(line.replace(';', delimiter) for line in lines)
    path = save('x.csv', byte_order_mark + text.encode())

    first, second, third, last = good_rows(path)
    assert first == {'body': f'two{delimiter} or\n\nthree, lines', 'mood': 'a', 'n': '1'}
    assert second == {'body': 'plain', 'mood': 'b', 'n': '2'}
    assert third == {'body': 'quote "d"', 'mood': 'a', 'n': ''}
    assert last == {'body': 'last', 'mood': 'é', 'n': '3'}


@pytest.mark.parametrize('text', ['word ' * 250_000, 'say "x"\n' * 150_000])
def test_a_field_may_hold_a_megabyte(save, text):
    """The csv module stops at 131,072 characters."""
    path = save('x.csv', to_csv([('body', 'mood'), (text, 'a'), ('short', 'b')]))
    assert [row['body'] for row in good_rows(path)] == [text, 'short']


def test_quotes_that_do_not_enclose_a_field_are_read_as_by_pandas(save):
    path = save(
        'x.csv',
        'text,label\na 5" screen,neg\n"wow" the agent,pos\n"a ""b""" c,pos\nsay "x", sir\n',
    )
    assert good_cells(path) == [
        ('a 5" screen', 'neg'),
        ('wow the agent', 'pos'),
        ('a "b" c', 'pos'),
        ('say "x"', ' sir'),
    ]


def test_quotes_that_a_backslash_escapes_are_read_as_meant(save):
    """MySQL and Spark write them so. Each row with one would otherwise be broken or cut."""
    lines = [
        'text,label',
        r'"it was \"so\", he said",neg',
        r'"\"late\"",neg',
        r'"the folder c:\new",pos',
        r'"a backslash \\",pos',
        '"two\\',
        'lines \\"here\\"",pos',
        r'say \"hi\",neg',  # as Python's csv module writes it with escapechar
        'plain,pos',
    ]
    assert good_cells(save('x.csv', '\n'.join(lines))) == [
        ('it was "so", he said', 'neg'),
        ('"late"', 'neg'),
        (r'the folder c:\new', 'pos'),
        ('a backslash \\', 'pos'),
        ('two\nlines "here"', 'pos'),
        ('say "hi"', 'neg'),
        ('plain', 'pos'),
    ]


def test_backslashes_are_ordinary_characters_in_other_files(save):
    """Also in front of a quote that ends a field: 'c:\\new\\' is a folder of Windows."""
    rows = [('c:\\new\\', 'a'), ('so, \\"he\\" said', 'b'), ('x\\\\y', 'c')]
    path = save('x.csv', to_csv([HEADER, *rows], quoting=csv.QUOTE_ALL))
    assert good_cells(path) == rows


def test_an_escaped_quote_far_down_is_read(save):
    """The dialect is judged by the first part of a file; a row beyond it must not be lost."""
    rows = 'a text of an ordinary length,pos\n' * 10_000
    for text in ('it was \\"so\\", he said', 'two\nlines, \\"here\\"'):
        path = save('x.csv', f'text,label\n{rows}"{text}",neg\n')
        assert good_cells(path)[-1] == (text.replace('\\', ''), 'neg')


@pytest.mark.parametrize('delimiter', [',', ';', '\t', '|'])
@pytest.mark.parametrize('quoting', [{}, {'doublequote': False, 'escapechar': '\\'}])
@pytest.mark.parametrize('text_line', ['well, "so; so"\n', 'he said "so"\n'])
def test_a_text_that_the_sample_cuts_is_one_row(save, monkeypatch, delimiter, quoting, text_line):
    """
    Such a text is no sign of broken quotes, and its lines are no rows. A TSV was taken for an
    unquoted one, where each line of the text is a row; another file lost its columns.
    """
    monkeypatch.setattr(tables, 'SAMPLE_CHARACTERS', 2000)
    rows = [('a', 'x' * 40)] * 5 + [('b', 'it began\n' + text_line * 300), ('c', 'd')]
    with_header = to_csv([('id', 'body, as; said'), *rows], delimiter=delimiter, **quoting)
    without_header = to_csv(rows, delimiter=delimiter, **quoting)
    assert good_cells(save('x.csv', with_header)) == rows
    assert good_cells(save('x.csv', without_header), header=False) == rows


@pytest.mark.parametrize('delimiter', [',', '\t'])
def test_an_open_quote_to_the_end_of_the_sample_costs_only_its_row(save, monkeypatch, delimiter):
    """In the sample it looks like a text that is cut. All rows after it are read nevertheless."""
    monkeypatch.setattr(tables, 'SAMPLE_CHARACTERS', 500)
    rows = [('text', 'label'), ('"open', 'neg')] + [('fine', 'pos')] * 100
    path = save('x.csv', ''.join(delimiter.join(row) + '\n' for row in rows))
    assert good_cells(path)[-100:] == rows[2:]


# -----------------------------------------------------------------------------
# tabs: quoted files, and those of GLUE, where quotes mean nothing


@pytest.mark.parametrize('quoting', [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_quoted_tsv_is_read(save, quoting):
    """pandas and Excel write it so: line ends in texts, and no quotes around them."""
    rows = [('he said "hello"', 'neg'), ('two\nlines', 'pos'), ('a\ttab', 'neg'), ('it', 'pos')]
    text = to_csv([HEADER, *rows], delimiter='\t', quoting=quoting)
    assert good_cells(save('x.tsv', text)) == rows


def test_the_quotes_of_an_unquoted_tsv_mean_nothing(save):
    """GLUE's files are full of lone quotes; a CSV reader would join hundreds of their rows."""
    rows = [
        ('"open', 'a'),
        ('it \'s "fine" , really', 'b'),
        ('a 5" screen', 'a'),
        ('"all of it"', 'b'),
        ('the end"', 'a'),
        ('', 'b'),
    ]
    lines = ['text\tlabel'] + ['\t'.join(row) for row in rows] + ['three\ta\tb']
    path = save('x.tsv', '\n'.join(lines))
    assert good_cells(path) == rows
    assert reasons_by_line(path) == {8: '3 fields instead of 2'}


def test_lone_quotes_far_down_in_a_tsv_cost_no_row(save):
    rows = 'a text of an ordinary length\tpos\n' * 10_000
    path = save('x.tsv', f'text\tlabel\n{rows}"open\tneg\nit\tpos\nsay "x\tneg\n')
    assert good_cells(path)[-3:] == [('"open', 'neg'), ('it', 'pos'), ('say "x', 'neg')]


def test_two_lone_quotes_of_a_tsv_do_not_join_all_rows_between_them(save):
    rows = 'a text\tpos\n' * 20
    path = save('x.tsv', f'text\tlabel\n"it began\tneg\n{rows}and ended"\tneg\n')
    assert len(good_rows(path)) == 22


@pytest.mark.skipif(not RAW, reason='NANOSENTIMENT_RAW names no folder with the real data')
@pytest.mark.parametrize(
    'name, n_rows',
    [
        ('sst2/train.tsv', 67349),
        ('sst2/dev.tsv', 872),
        ('customer_service/train.csv', 970),
        ('customer_service/test.csv', 30),
    ],
)
def test_all_rows_of_the_real_data_are_read(name, n_rows):
    table = Table(f'{RAW}/{name}')
    assert Counter(reason for _, _, reason in table) == {'': n_rows}
    assert table.notes == []


# -----------------------------------------------------------------------------
# line ends


@pytest.mark.parametrize('line_end', ['\n', '\r', '\r\n', '\r\r\n'])
@pytest.mark.parametrize('name', ['x.csv', 'x.tsv', 'x.jsonl', 'x.txt'])
def test_all_line_ends_are_read(save, line_end, name):
    """CR alone is that of old Macs; a text file written twice in Windows has CR CR LF."""
    texts = ['late', 'lovely', 'never again']
    if name == 'x.jsonl':
        lines = [json.dumps({'text': text}) for text in texts]
    elif name == 'x.txt':
        lines = texts
    else:
        lines = ['text,n'] + [f'"{text}",1' for text in texts]
        lines = [line.replace(',', '\t' if name == 'x.tsv' else ',') for line in lines]
    path = save(name, ''.join(line + line_end for line in lines))
    found = [row['text'] for row in good_rows(path)]
    assert [text for text in found if text] == texts


def test_mixed_line_ends_are_read(save):
    """Files that were put together from several computers have them."""
    path = save('x.csv', 'text,label\na,neg\r\nb,pos\rc,neg\n"d, 1",pos\r"e",neg\rf,pos\n')
    rows = [('a', 'neg'), ('b', 'pos'), ('c', 'neg'), ('d, 1', 'pos'), ('e', 'neg'), ('f', 'pos')]
    assert good_cells(path) == rows
    path = save('y.csv', 'text,label\ra,neg\r\nb,pos\nc,neg\r')
    assert good_cells(path) == rows[:3]


@pytest.mark.parametrize('line_end', ['\n', '\r\n', '\r'])
def test_line_ends_in_quotes_stay_as_they_are(save, line_end):
    rows = [('one\ntwo\r\nthree\rfour\n\nsix', 'a'), ('last', 'b')]
    path = save('x.csv', to_csv([HEADER, *rows], lineterminator=line_end, quoting=csv.QUOTE_ALL))
    assert good_cells(path) == rows


def test_a_lone_cr_in_a_text_ends_no_row(save):
    """pandas writes it without quotes where lines end with LF, as on Linux."""
    path = save('x.csv', 'label,text\nneg,late \r and rude\npos,"well, \r yes"\n')
    assert good_cells(path) == [('neg', 'late \r and rude'), ('pos', 'well, \r yes')]


def test_the_line_number_is_that_of_an_editor(save):
    """It must lead to the row, whatever the rows before it are like."""
    path = save('x.csv', '\n\ntext,label\n"two\nlines",a\n\n"open,b\nfine,c\n')
    assert [line for line, _, _ in Table(path)] == [4, 7, 8]
    path = save('x.json', '[\n\n{"text": "a"},\n{\n"text":\n"b"}, {"text": "c"}\n]')
    assert [line for line, _, _ in Table(path)] == [3, 4, 6]


# -----------------------------------------------------------------------------
# headers and columns


def test_a_file_without_a_header_has_numbers_for_names(save):
    """Like Sentiment140, whose text is column 5. The first row is not lost."""
    rows = [('0', '100', 'Mon', 'NO_QUERY', 'user', 'late, again'), ('4', '1', '', '', '', 'fine')]
    path = save('x.csv', to_csv(rows, quoting=csv.QUOTE_ALL))
    for flag in (False, 'False'):
        table = Table(path, header=flag)
        assert table.columns == ['0', '1', '2', '3', '4', '5']
        assert [row['5'] for _, row, _ in table] == ['late, again', 'fine']
        assert table.notes == []


@pytest.mark.parametrize(
    'first_line, sign',
    [
        ('late and rude,0', "'0' is a number"),
        ('https://x.org/1,fine', "'https://x.org/1' is a web address"),
        ('late and rude,neg', "'neg' is also in 3 of the next rows"),
        ('late ' * 50 + ',neu', 'has 249 characters'),
    ],
)
def test_a_header_that_looks_like_data_is_said(save, first_line, sign):
    """Otherwise a row is lost, and a user wonders where the column "0" comes from."""
    path = save('x.csv', first_line + '\nfine,pos' + '\nlate,neg' * 3)
    (note,) = Table(path).notes
    assert note.startswith('line 1 looks like data (') and sign in note
    assert '--header=False' in note
    assert Table(path, header=True).notes == []
    assert len(good_rows(path, header=False)) == 5


def test_ordinary_headers_are_not_doubted(save):
    for header in ('text,label', ',Text (free),Rating 1-5', 'How do you feel?,nan'):
        n_columns = header.count(',') + 1
        rows = '\n'.join(','.join(['fine'] * n_columns) for _ in range(5))
        assert Table(save('x.csv', f'{header}\n{rows}\n')).notes == []


def test_a_header_setting_that_is_none_is_an_error(save):
    with pytest.raises(ValueError, match="header 'no' is none of True, False and auto"):
        Table(save('x.csv', 'text\na\n'), header='no')


def test_empty_lines_before_the_header_do_not_matter(save):
    path = save('x.csv', '\n\nbody;mood\nfine;a\n')
    assert list(Table(path)) == [(4, {'body': 'fine', 'mood': 'a'}, '')]


def test_columns_of_the_same_name_are_numbered(save):
    """The first keeps its name, because that is the one a user means. Blanks do not count."""
    path = save('x.csv', 'mood,id, mood\nfirst,1,second\n')
    assert good_rows(path) == [{'mood': 'first', 'id': '1', 'mood.2': 'second'}]
    path = save('x.csv', 'mood,mood.2,mood\nfirst,second,third\n')
    assert good_cells(path) == [('first', 'second', 'third')]


@pytest.mark.parametrize('n_rows', [1, 100])
def test_a_broken_header_is_an_error(save, monkeypatch, n_rows):
    """Otherwise the first row would silently become the header. A long file is judged in part."""
    monkeypatch.setattr(tables, 'SAMPLE_CHARACTERS', 500)
    path = save('x.csv', '\n"body,mood\n' + 'fine,a\n' * n_rows)
    message = 'x.csv: the header in line 2 cannot be read .broken quoting: .*; correct it'
    with pytest.raises(ValueError, match=message):
        Table(path)


def test_a_flawed_header_is_an_error(save):
    """All rows would have its flaw in the name of a column."""
    path = save('x.csv', 'bo\0dy,größe\nfine,a\n')
    with pytest.raises(ValueError, match='x.csv: the header in line 1 cannot be read .NUL byte'):
        Table(path)
    path = save('x.csv', 'größe,mood\nfine,a\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='x.csv: the header in line 1 cannot be read .not utf-8'):
        Table(path, encoding='utf-8')


@pytest.mark.parametrize('content', ['', '\n\n', '\ufeff', 'text,label\n'])
@pytest.mark.parametrize('header', [True, False])
def test_a_file_without_rows_has_none(save, content, header):
    """Those who use the table say so: they know what it was for."""
    table = Table(save('x.csv', content), header=header)
    n_rows = int(content.startswith('text') and not header)
    assert len(list(table)) == n_rows


def test_a_file_that_cannot_be_opened_is_the_callers_affair(tmp_path):
    with pytest.raises(FileNotFoundError):
        Table(tmp_path / 'none.csv')
    with pytest.raises(IsADirectoryError):
        Table(tmp_path)


# -----------------------------------------------------------------------------
# rows of different lengths


def test_cells_that_were_left_out_are_empty(save):
    """Spreadsheets leave out the empty cells at a row's end."""
    path = save('x.csv', 'text,label,comment,by\nlate,neg\nfine,pos,ok,me\nit\n')
    assert good_cells(path) == [
        ('late', 'neg', '', ''),
        ('fine', 'pos', 'ok', 'me'),
        ('it', '', '', ''),
    ]


def test_a_short_row_may_have_a_text_whose_lines_look_like_rows(save):
    path = save('x.csv', 'text,label,comment,by\n"two\nlines, a, b",neg\nfine,pos,ok,me\n')
    assert good_cells(path) == [('two\nlines, a, b', 'neg', '', ''), ('fine', 'pos', 'ok', 'me')]


def test_more_cells_than_columns_are_only_good_if_they_are_empty(save):
    """With text in them the row was split in the wrong place, so that any cell may be wrong."""
    path = save('x.csv', 'text,label\nlate,neg,\nfine,pos,, ,\nlate, and rude,neg\n')
    assert good_cells(path) == [('late', 'neg'), ('fine', 'pos')]
    assert reasons_by_line(path) == {4: '3 fields instead of 2'}


def test_columns_without_a_name_get_one(save):
    """The columns that a spill of unquoted commas has made, and the index of pandas."""
    table = Table(save('x.csv', 'v1,v2,,,\nneg,late, and rude,,\npos,fine,,,\n'))
    assert table.columns == ['v1', 'v2', 'column 3', 'column 4', 'column 5']
    assert [row['column 3'] for _, row, _ in table] == [' and rude', '']
    assert Table(save('x.csv', ',text\n0,fine\n')).columns == ['column 1', 'text']


def test_without_a_header_the_widest_common_rows_count(save):
    """The first row may be a short one; filling is no loss, rejecting is."""
    path = save('x.csv', 'a,pos\nb,neg,x\nc,pos,y\nd,neg\n')
    assert good_cells(path, header=False) == [
        ('a', 'pos', ''),
        ('b', 'neg', 'x'),
        ('c', 'pos', 'y'),
        ('d', 'neg', ''),
    ]


# -----------------------------------------------------------------------------
# JSON


JSON_ROWS = [
    {'text': 'late, and "rude"', 'label': 0, 'spans': [{'from': 1}, {'from': 2}]},
    {'text': 'a {"b": [1]}\nline', 'label': 1.0},
    {'text': None, 'label': True, 'id': 'é'},
]


def json_files():
    """The same rows in all accepted forms: (name, content)."""
    lines = [json.dumps(row) + '\n' for row in JSON_ROWS]
    pretty_lines = [json.dumps(row, indent=2) + '\n' for row in JSON_ROWS]
    yield 'lines.jsonl', ''.join(lines)
    yield 'lines.json', ''.join(lines)
    yield 'lines.ndjson', ''.join(lines)
    yield 'lines-of-an-array.json', '[\n' + ',\n'.join(lines) + ']'
    yield 'pretty-objects.jsonl', ''.join(pretty_lines)
    yield 'array.json', json.dumps(JSON_ROWS)
    yield 'array.jsonl', json.dumps(JSON_ROWS)
    yield 'pretty-array.json', json.dumps(JSON_ROWS, indent=4)
    yield 'pretty-array.jsonl', json.dumps(JSON_ROWS, indent=1)
    yield 'unindented-array.json', json.dumps(JSON_ROWS, indent=0)
    yield 'wrapped.json', json.dumps({'data': JSON_ROWS})
    wrapped = {'version': 1, 'tags': ['a', 'b'], 'rows': JSON_ROWS, 'meta': {'n': 3}, 'notes': []}
    yield 'wrapped-with-more.json', json.dumps(wrapped, indent=2)
    yield 'mark.json', '\ufeff' + json.dumps(JSON_ROWS)


@pytest.mark.parametrize('name, content', list(json_files()))
def test_all_forms_of_json_are_read_and_values_stay_as_they_are(save, name, content):
    """Whoever writes the rows out again must not turn 1 into "1", or a list into a text."""
    table = Table(save(name, content))
    assert table.is_json
    rows = [row for _, row, reason in table if not reason]
    # 1 == 1.0 == True in Python, so compare what is written
    assert json.dumps(rows) == json.dumps(JSON_ROWS)
    assert table.notes == []


def test_json_is_recognised_under_another_name(save):
    for name in ('x.csv', 'x.txt', 'x'):
        table = Table(save(name, json.dumps(JSON_ROWS)))
        assert [row for _, row, _ in table] == JSON_ROWS


def test_columns_of_json_are_complete_after_the_first_iteration(save):
    """Rows may lack keys that others have, and a first pass over a large file takes time."""
    table = Table(save('x.jsonl', '{"a": 1}\n{"c": 1, "b": 2}\n{"b": 3}\n'))
    assert table.columns == ['a']
    for _ in range(2):
        assert len(list(table)) == 3
        assert table.columns == ['a', 'c', 'b']


def test_a_flaw_deep_in_a_json_row_costs_only_that_row(save):
    """Also one in a key: otherwise all rows after it would be rejected for a key of another."""
    lines = [
        '{"text": "a"}',
        '{"text": "b", "\\ud800": 1}',
        '{"text": "c", "more": [{"x": ["\\ud83d"]}]}',
        '{"text": "d\\u0000"}',
        '{"text": "\\ud83d\\ude00"}',
    ]
    path = save('x.jsonl', '\n'.join(lines))
    assert good_rows(path) == [{'text': 'a'}, {'text': '😀'}]
    assert reasons_by_line(path) == {
        2: 'half of a character (a lone surrogate)',
        3: 'half of a character (a lone surrogate)',
        4: 'NUL byte',
    }
    rejected = [row for _, row, reason in Table(path) if reason]
    json.dumps(rejected, ensure_ascii=False).encode('utf-8')  # can be written
    assert Table(path).columns == ['text']


@pytest.mark.parametrize(
    'value, text',
    [
        ('late', 'late'),
        ('', ''),
        (None, ''),
        (True, 'true'),
        (False, 'false'),
        (1, '1'),
        (1.0, '1.0'),
        (-0.5, '-0.5'),
        (float('nan'), ''),  # pandas writes it for an empty cell
    ],
)
def test_the_text_of_a_value_is_that_of_json(value, text):
    """'True', as Python writes it, is in no other file of the same data."""
    assert cell_text(value) == (text, '')


def test_lists_and_objects_are_no_texts():
    """Their Python form was trained on once: "['a', 'b']"."""
    assert cell_text(['a']) == ('', 'a list, where one text is needed')
    reason = 'an object with the keys text, id, where one text is needed'
    assert cell_text({'text': 'a', 'id': 1}) == ('', reason)
    _, reason = cell_text(dict.fromkeys(map(str, range(1000))))
    assert reason == 'an object with the keys 0, 1, 2, 3, 4 and 995 more, where one text is needed'


# -----------------------------------------------------------------------------
# plain text, gzip and other formats


def test_each_line_of_a_text_file_is_a_row(save):
    """An empty line, too, so that the answers can be put beside the lines."""
    table = Table(save('x.txt', 'late, "and\n\nrude\r\nfine'))
    assert table.kind == 'txt'
    assert [(line, row['text']) for line, row, _ in table] == [
        (1, 'late, "and'),
        (2, ''),
        (3, 'rude'),
        (4, 'fine'),
    ]


@pytest.mark.parametrize('name', ['x.csv', 'x.tsv', 'x.jsonl', 'x.json', 'x.txt'])
def test_gzip_is_read_whatever_its_name(save, name):
    contents = {
        'x.csv': 'text,label\nlate,neg\nfine,pos\n',
        'x.tsv': 'text\tlabel\nlate\tneg\nfine\tpos\n',
        'x.jsonl': '{"text": "late"}\n{"text": "fine"}\n',
        'x.json': '[{"text": "late"}, {"text": "fine"}]',
        'x.txt': 'late\nfine\n',
    }
    compressed = gzip.compress(contents[name].encode())
    for file_name in (name + '.gz', name):
        path = save(file_name, compressed)
        assert [row['text'] for row in good_rows(path)] == ['late', 'fine']
    # a browser may have unpacked it, and kept the name
    assert len(good_rows(save(name + '.gz', contents[name]))) == 2


def test_a_damaged_gzip_file_is_an_error(save):
    compressed = gzip.compress(os.urandom(1000).hex().encode())
    for content in (compressed[:-100], compressed[:100] + b'\0' * 50, b'\x1f\x8bgarbage'):
        with pytest.raises(ValueError, match='x.csv.gz: its compression is damaged or cut off'):
            list(Table(save('x.csv.gz', content)))


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('x.parquet', b'PAR1\x15', r"is a Parquet file; .*read_parquet\('.*x.parquet'\).to_csv"),
        ('x.csv', b'PAR1\x15', 'is a Parquet file; .*x.csv.csv'),
        ('x.feather', b'', 'is an Arrow file; .*read_feather'),
        ('x.xlsx', b'', 'is a spreadsheet; save it as CSV .*read_excel'),
        ('x.csv', b'PK\x03\x04\x14\0[Content_Types].xml', 'is a spreadsheet; save it as CSV'),
        ('x.xls', b'', 'is an old Excel file; save it as CSV .*read_excel'),
        ('x.csv', b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1', 'is an old Excel file'),
        ('x.zip', b'', 'is an archive; unpack it'),
        ('x.csv', b'PK\x03\x04\x14\0x.csv', 'is an archive; unpack it'),
        # mtime, because the name of a test must be the same in all processes of pytest-xdist
        ('x.tar.gz', gzip.compress(b'x', mtime=0), 'is an archive; unpack it'),
        ('x.csv', b'\n<!DOCTYPE html>\n<html>', 'is a web page; download the file itself'),
        ('x.csv', b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
    ],
)
def test_other_formats_are_refused_with_the_remedy(save, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        Table(save(name, content))
    assert '\n' not in str(caught.value)


def test_a_table_whose_header_begins_like_another_format_is_read(save):
    assert Table(save('x.csv', 'PAR1,PK\na,b\n')).columns == ['PAR1', 'PK']


# -----------------------------------------------------------------------------
# all of it at once


@pytest.mark.parametrize('form', ['csv', 'quoted', 'json', 'wrapped'])
def test_memory_does_not_grow_with_the_file(save, form):
    """Of 5 MB about one is held at a time; a file of 5 GB would take no more."""
    rows = [{'id': i, 'text': 'word ' * 40, 'label': 'pos'} for i in range(20_000)]
    name = 'x.json'
    if form == 'wrapped':
        content = json.dumps({'data': rows})
    elif form == 'json':
        content = json.dumps(rows)
    else:
        name = 'x.csv'
        quoting = csv.QUOTE_ALL if form == 'quoted' else csv.QUOTE_MINIMAL
        content = to_csv([rows[0], *(row.values() for row in rows)], quoting=quoting)
    path = save(name, content)
    del rows, content
    tracemalloc.start()
    table = Table(path)
    for line_number, _, reason in itertools.islice(table, 10_000):
        assert not reason, (line_number, reason)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


# -----------------------------------------------------------------------------
# any table, in any dialect

DELIMITERS = [',', ';', '\t', '|']
QUOTINGS = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL]
LINE_ENDS = ['\n', '\r\n', '\r']
ENCODINGS = ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32', 'cp1252']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('tables')


def write_table(folder, rows, dialect):
    """Writes a table in a dialect (delimiter, quoting, line end, encoding, is gzip) -> its path."""
    delimiter, quoting, line_end, encoding, is_gzip = dialect
    text = to_csv(rows, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    content = text.encode(encoding)
    path = folder / 'x.csv'
    if is_gzip:
        content = gzip.compress(content)
    path.write_bytes(content)
    return path


# mostly what has a meaning in some dialect
nasty_texts = st.text(st.sampled_from('ab "",;\t|\\\r\n\'é’{[:='), max_size=12)
any_texts = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=8)
any_rows = st.integers(1, 4).flatmap(
    lambda n_columns: st.lists(
        st.lists(nasty_texts | any_texts, min_size=n_columns, max_size=n_columns).map(tuple),
        min_size=1,
        max_size=6,
    )
)
dialects = st.tuples(
    st.sampled_from(DELIMITERS),
    st.sampled_from(QUOTINGS),
    st.sampled_from(LINE_ENDS),
    st.sampled_from(ENCODINGS),
    st.booleans(),
)


def is_ambiguous(rows, dialect):
    """Could the file that the csv module writes also mean another table?"""
    delimiter, quoting, line_end, _, _ = dialect
    texts = [text for row in rows for text in row]
    if quoting == csv.QUOTE_MINIMAL and line_end != '\r\n':
        # Before Python 3.13 it puts no quotes around a line end other than its own: 'a\r' + '\n'.
        if line_end == '\r' and any('\n' in text for text in texts):
            return True
        return any(text.endswith('\r') for text in texts)
    # see swallows_rows: four lines of a text, each with just as many tabs as a row
    return delimiter == '\t' and any('\t' in text and len(text.splitlines()) > 2 for text in texts)


def check_that_a_table_comes_back(folder, rows, dialect):
    assume(not is_ambiguous(rows, dialect))
    delimiter, _, _, encoding, _ = dialect
    try:
        ''.join(itertools.chain(*rows)).encode(encoding)
    except UnicodeEncodeError:
        assume(False)
    header = [f'column {i}' for i in range(len(rows[0]))]
    path = write_table(folder, [header, *rows], dialect)
    table = Table(path, delimiter=delimiter, encoding=encoding, header=True)
    assert table.columns == header
    assert [(tuple(row.values()), reason) for _, row, reason in table] == [
        (row, '') for row in rows
    ]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=any_rows, dialect=dialects)
def test_any_table_comes_back_equal_if_its_dialect_is_given(folder, rows, dialect):
    check_that_a_table_comes_back(folder, rows, dialect)


@pytest.mark.stress
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=any_rows, dialect=dialects)
def test_any_of_many_tables_comes_back_equal(folder, rows, dialect):
    check_that_a_table_comes_back(folder, rows, dialect)


REALISTIC_TABLES = {
    'reviews': [('text', 'label'), ('Late, and rude!', 'neg'), ('Lovely; "quick"', 'pos')],
    'one column': [('text',), ('late, and rude',), ('he said "no"',), ('a; b | c',)],
    'numbers': [('id', 'text', 'stars'), ('1', 'fine', '4'), ('2', '1,5 hours late', '-1')],
    'empty cells': [('text', 'label', 'note'), ('fine', 'pos', ''), ('', 'neg', ''), ('a', '', '')],
    'line ends': [('id', 'text'), ('1', 'two\nlines, here'), ('2', 'three\n\n"lines"; all')],
    'dialogue': [('conversation', 'mood'), ('Agent: hi, "Jo"\nJo: no; never', 'neg')],
    'letters': [('texte', 'note'), ('très «bon», dit-elle', 'positif'), ('à l’heure', 'négatif')],
    'code': [('code', 'tag'), ('a = x[1]; b = {"k": 2}', 'js'), ('if a | b:\n\treturn "c"', 'py')],
    'paths': [('path', 'kind'), ('C:\\new\\', 'dir'), ('say \\"hi\\", he', 'text'), ('\\', 'x')],
    'links': [('url', 'text'), ('https://x.org/?a=1,2;b', 'see "this"'), ('http://y.org', '')],
    'wide': [tuple('abcdefgh'), tuple('12345678'), ('x, y', '', '', '"', ';', '', '|', 'z')],
    'header with commas': [('text, as given', 'label'), ('a, b, c', 'pos'), ('d', 'neg')],
}


@pytest.mark.parametrize('name', REALISTIC_TABLES)
def test_realistic_tables_come_back_equal_in_every_dialect(folder, name):
    """Delimiter, quoting, line ends, encoding and compression are all found out."""
    header, *rows = REALISTIC_TABLES[name]
    is_compressed = itertools.cycle([False, True])
    for dialect in itertools.product(DELIMITERS, QUOTINGS, LINE_ENDS, ENCODINGS):
        dialect = (*dialect, next(is_compressed))
        if is_ambiguous(rows, dialect):
            continue
        table = Table(write_table(folder, [header, *rows], dialect))
        assert table.columns == list(header), dialect
        assert [(tuple(row.values()), reason) for _, row, reason in table] == [
            (row, '') for row in rows
        ], dialect


# -----------------------------------------------------------------------------
# any bytes

PIECES = [
    *(b'text', b'label', b'a', b'1', b' ', b'\n', b'\n', b'\r', b'\r\n', b'\0', b'nul'),
    *(b',', b';', b'\t', b'|', b'"', b'""', b'\\"', b'\\', b'sep=;', b'"a, b"', b'"a\nb"'),
    *(
        b'\xe9',
        b'\xc3\xa9',
        b'\xff\xfe',
        b'\xef\xbb\xbf',
        b'\xed\xa0\x80',
        b'\x1f\x8b',
        b'PK\x03\x04',
    ),
    *(b'{', b'}', b'[', b']', b':', b'"text":', b'{"a": 1}', b'\\ud800', b'{"data": [', b'NaN'),
]
NAMES = ['x.csv', 'x.tsv', 'x.txt', 'x.json', 'x.jsonl', 'x.csv.gz', 'x']


def check_any_bytes(folder, content, name, encoding, header):
    """No exception but a ValueError of one line; each row is usable or has a reason, and again."""
    path = folder / name
    if name.endswith('.gz') and not content.startswith(b'\x1f\x8b'):
        content = gzip.compress(content)
    path.write_bytes(content)
    try:
        table = Table(path, encoding=encoding, header=header)
        rows = list(table)
    except ValueError as error:
        assert not isinstance(error, UnicodeError)
        assert '\n' not in str(error)
        return
    assert repr(list(table)) == repr(rows)
    lines = [line for line, _, _ in rows]
    assert lines == sorted(lines)
    for _, row, reason in rows:
        assert '\n' not in reason
        json.dumps(row, ensure_ascii=False).encode('utf-8')  # can be written
        if not reason and not table.is_json:
            assert list(row) == table.columns


any_bytes = st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=40).map(b''.join)
any_file = {
    'content': any_bytes,
    'name': st.sampled_from(NAMES),
    'encoding': st.sampled_from(['', '', '', 'utf-8', 'utf-16', 'cp1252', 'shift_jis', 'ascii']),
    'header': st.sampled_from(['auto', True, False]),
}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(**any_file)
def test_any_bytes_are_read_or_refused(folder, content, name, encoding, header):
    check_any_bytes(folder, content, name, encoding, header)


@pytest.mark.stress
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(**any_file)
def test_any_of_many_bytes_are_read_or_refused(folder, content, name, encoding, header):
    check_any_bytes(folder, content, name, encoding, header)


# -----------------------------------------------------------------------------
# work


def test_broken_quotes_take_time_in_proportion_to_the_file(tmp_path, monkeypatch):
    """Each line opened a quote and took all lines after it: 195 kB took 131 s."""
    n_calls = 0
    real_next = tables.Lines.__next__

    def count(lines):
        nonlocal n_calls
        n_calls += 1
        return real_next(lines)

    monkeypatch.setattr(tables.Lines, '__next__', count)
    calls = []
    for n_lines in (2000, 4000):
        (tmp_path / 'x.csv').write_text('text,label\n' + 'a","\n' * n_lines)
        n_calls = 0
        assert len(list(Table(tmp_path / 'x.csv'))) == n_lines
        calls.append(n_calls)
    assert calls[1] < 2.5 * calls[0]


def test_a_header_takes_time_in_proportion_to_its_columns():
    """Each name was compared with all names before it: 20,000 columns, 200 million comparisons."""
    n_comparisons = 0

    class Name(str):
        def strip(self):
            return self

        def __eq__(self, other):
            nonlocal n_comparisons
            n_comparisons += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(f'column {i}') for i in range(2000)]
    assert tables.name_columns(names) == names
    assert n_comparisons < 20_000


def test_an_odd_key_costs_its_row_only(tmp_path):
    """990 good rows were rejected because of one key that no file can hold."""
    rows = [json.dumps({'text': f'hello {i}', 'label': 'a'}) for i in range(1000)]
    for odd_key in ('\\ud800', '\\u0000'):
        lines = [*rows[:10], f'{{"text": "x", "{odd_key}": 1}}', *rows[10:]]
        (tmp_path / 'x.jsonl').write_text('\n'.join(lines))
        reasons = [reason for _, _, reason in Table(tmp_path / 'x.jsonl')]
        assert [i for i, reason in enumerate(reasons) if reason] == [10]
