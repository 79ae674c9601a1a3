"""
The rows of any table that a user brings, one at a time, each with the reason if it cannot be used.

    table = Table('mine.csv')
    for line_number, row, reason in table:
        ...

A Table first looks at the file: which kind it is, its encoding, delimiter, quoting and header.
Then it reads the file as a stream, so memory never holds more than a small part of it.
docs/data.md says for users what is accepted, guessed and refused.
"""

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import json
import math
import os
import re
import zlib
from collections import Counter, deque
from typing import NamedTuple

from nanosentiment.json_rows import (
    JSON_BEGIN,
    describe_value,
    find_array_key,
    read_json_rows,
    strings_in,
)

# A longer field is taken for a quote that is never closed. The csv module's own limit is 131,072.
csv.field_size_limit(1 << 22)

# How much of a CSV file decides its delimiter, its quoting and whether its header looks like data
SAMPLE_CHARACTERS = 1 << 18
SAMPLE_RECORDS = 500

KINDS = {
    '.csv': 'csv',
    '.tsv': 'csv',
    '.tab': 'csv',
    '.json': 'json',
    '.jsonl': 'json',
    '.ndjson': 'json',
    '.txt': 'txt',
}


class Table:
    """
    The rows of a file: CSV, TSV, JSON or plain text, also compressed with gzip.

    Iterating yields (line number, row, reason), as often as you like. The reason is '' if the row
    can be used. If not, the row holds as much as could be read, perhaps nothing. Its cells are
    texts, but those of JSON are the JSON values: see cell_text.

    path      the file
    kind      'csv', also for TSV; 'json', whose rows may lack keys; 'txt', one text on each line
    encoding  of its text
    columns   their names. Those of JSON are the keys of the first usable row, and others follow
              while rows are read: the list is complete after the first iteration.
    notes     one line on each guess that a person should know of

    Raises ValueError for a file or a setting that the user must change, and OSError.
    """

    def __init__(self, path, delimiter='', encoding='', header='auto'):
        """
        delimiter  of a CSV file: one character or 'tab'; '' finds it out
        encoding   e.g. 'cp1251'; '' finds out UTF-8, UTF-16, UTF-32 or cp1252
        header     False: the columns are named '0', '1', ...; True: the first row has their names;
                   'auto': likewise, with a note if it looks like data
        """
        self.path = os.fspath(path)
        self.columns = []
        self.notes = []
        self.array_key = ''  # JSON: the rows are the array under this key
        self.newline = None  # as open() has it
        self.n_skipped = 0  # CSV: records in front of the rows
        self.dialect = None
        delimiter = check_delimiter(delimiter)
        header = check_header(header)
        check_encoding(encoding)
        refuse_other_formats(self.path)

        with report_unreadable(self.path):
            self.encoding = encoding
            if not encoding:
                self.encoding, note = find_encoding(self.path)
                self.add_note(note)
            with open_text(self.path, self.encoding, newline='') as f:
                begin = f.read(SAMPLE_CHARACTERS)
            self.kind = self.find_kind(begin, delimiter)
            if self.kind == 'json':
                self.look_at_json()
            elif self.kind == 'csv':
                self.look_at_csv(begin, delimiter, header)
            else:
                self.columns = ['text']

    @property
    def is_json(self):
        return self.kind == 'json'

    def add_note(self, note):
        if note:
            self.notes.append(note)

    def find_kind(self, begin, delimiter):
        """The kind by the file's name, unless the text says otherwise."""
        kind = KINDS.get(find_extension(self.path), '')
        if kind != 'json' and JSON_BEGIN.match(begin):
            if kind:
                self.add_note('read as JSON, because it begins like JSON')
            return 'json'
        if kind == 'txt' and delimiter:
            return 'csv'
        return kind or 'csv'

    def __iter__(self):
        path = self.path
        with report_unreadable(path), open_text(path, self.encoding, self.newline) as f:
            if self.kind == 'json':
                yield from self.read_json(f)
            elif self.kind == 'csv':
                yield from self.read_csv(f)
            else:
                yield from self.read_txt(f)

    # CSV

    def look_at_csv(self, begin, delimiter, header):
        """Finds the dialect and the names of the columns."""
        self.newline = find_newline(begin)
        lines = list(io.StringIO(begin, self.newline))
        is_cut = len(begin) == SAMPLE_CHARACTERS
        if is_cut and len(lines) > 1:
            lines.pop()  # only a part of it may be here

        # Excel takes the delimiter from a first line such as "sep=;", which is no row
        sep_line = SEP_LINE.match(begin)
        if sep_line:
            delimiter = delimiter or sep_line[1]
            self.n_skipped = 1
            lines.pop(0)

        sample = Sample(lines, is_cut)
        if not delimiter:
            delimiter = self.guess_delimiter(sample)
        counts = count_fields(sample, delimiter)
        if not counts:  # there is no record
            return
        n_columns = counts[0]
        if header is False:
            n_columns = count_columns(counts)
        quoting = find_quoting(sample, delimiter, n_columns)
        self.dialect = Dialect(delimiter, quoting, n_columns)

        if header is False:
            self.columns = [str(i) for i in range(n_columns)]
        else:
            self.read_header(lines, header)

    def guess_delimiter(self, sample):
        """The delimiter; a tab in the first line of a .tsv decides, whatever else is in it."""
        is_tsv = find_extension(self.path) in ('.tsv', '.tab')
        if is_tsv:
            counts = count_fields(sample, '\t')
            if counts and counts[0] > 1:
                return '\t'
        delimiter = find_delimiter(sample)
        if is_tsv and delimiter != NO_DELIMITER:
            self.add_note(f'its columns are separated by {delimiter!r} and not by tabs')
        return delimiter

    def read_header(self, lines, header):
        """Finds the names of the columns. With 'auto' a note says if they look like data."""
        records = read_records(Lines(lines), self.dialect, self.encoding)
        line_number, names, reason = next(records)
        line_number += self.n_skipped
        if reason:
            raise ValueError(
                f'{self.path}: the header in line {line_number} cannot be read ({reason}); '
                'correct it, and save the file in UTF-8'
            )
        self.n_skipped += 1
        self.columns = name_columns(names)
        if header == 'auto':
            rows = [fields for _, fields, _ in itertools.islice(records, SAMPLE_RECORDS)]
            sign = find_sign_of_data(names, rows)
            if sign:
                self.add_note(
                    f'line {line_number} looks like data ({sign}), but was taken for the header; '
                    'if the file has none, set --header=False and give columns by number, from 0'
                )

    def read_csv(self, f):
        if self.dialect is None:  # there is no record
            return
        n_columns = len(self.columns)
        records = read_records(Lines(f), self.dialect, self.encoding)
        for _ in range(self.n_skipped):
            next(records)
        for line_number, fields, reason in records:
            if len(fields) != n_columns and not reason:
                fields, reason = fit_fields(fields, n_columns)
            yield line_number, dict(zip(self.columns, fields)), reason

    # JSON

    def look_at_json(self):
        """Finds out whether an array of rows is wrapped in an object, and the first columns."""
        with open_text(self.path, self.encoding, self.newline) as f:
            self.array_key = find_array_key(f, self.path)
        for _, _, reason in self:
            if not reason:
                break

    def read_json(self, f):
        known = set(self.columns)
        for line_number, row, reason in read_json_rows(f, self.array_key):
            reason = reason or find_flaw(strings_in(row), self.encoding)
            if reason:
                yield line_number, without_surrogates(row), reason
                continue
            for name in row:
                if name not in known:
                    known.add(name)
                    self.columns.append(name)
            yield line_number, row, ''

    # plain text

    def read_txt(self, f):
        """Empty lines are rows too, so that a list of answers has as many lines as the file."""
        for line_number, line in enumerate(f, start=1):
            text = line.rstrip('\n')
            reason = find_flaw([text], self.encoding)
            yield line_number, {'text': SURROGATE.sub('\ufffd', text)}, reason


# -----------------------------------------------------------------------------
# settings


def check_delimiter(delimiter):
    """'tab' and '\\t' as users write it -> a tab; raises ValueError if it is none."""
    if delimiter in ('tab', '\\t'):
        return '\t'
    if len(delimiter) > 1 or delimiter in ('"', '\\', '\r', '\n', '\0'):
        raise ValueError(
            f'delimiter {delimiter!r} cannot separate columns; set --delimiter to one character '
            'such as , or ; or to tab'
        )
    return delimiter


def check_header(header):
    """True, False or 'auto', also as the text of a flag; raises ValueError if it is none."""
    values = {'true': True, 'false': False, 'auto': 'auto'}
    name = str(header).lower()
    if name not in values:
        raise ValueError(f'header {header!r} is none of True, False and auto; set --header to one')
    return values[name]


def check_encoding(encoding):
    """Raises ValueError for an encoding that Python does not know."""
    try:
        # codecs.lookup would also find base64, which is no text, and idna, which marks no errors
        b'a,b'.decode(encoding or 'utf-8', errors='nanosentiment.mark')
    except (LookupError, ValueError):
        raise ValueError(
            f'encoding {encoding!r} is unknown; set --encoding to one such as '
            'utf-8, cp1252, cp1251, utf-16, shift_jis or gb18030'
        ) from None


# -----------------------------------------------------------------------------
# cells


def cell_text(value):
    """
    The text of a cell, and the reason if it has none.

    1.0 -> ('1.0', ''); True -> ('true', ''); None -> ('', '')
    ['a'] -> ('', 'a list, where one text is needed')
    """
    if isinstance(value, str):
        return value, ''
    if isinstance(value, (list, dict)):
        return '', f'{describe_value(value)}, where one text is needed'
    # pandas writes an empty cell as null or as NaN
    if value is None or value != value:
        return '', ''
    return json.dumps(value), ''


# The decoders make no surrogates: a lone one comes from JSON ("\ud800"), or it is one of those that
# stand for something else while a file is read.
SURROGATE = re.compile('[\ud800-\udfff]')
FLAW = re.compile('[\0\ud800-\udfff]')
UNDECODABLE = '\udcff'  # bytes that do not exist in the file's encoding


def find_flaw(strings, encoding):
    """The reason why strings cannot be written and tokenized, or ''."""
    flaw = FLAW.search(''.join(strings))
    if not flaw:
        return ''
    if flaw[0] == '\0':
        return 'NUL byte'
    if flaw[0] == UNDECODABLE:
        return f'not {encoding}'
    return 'half of a character (a lone surrogate)'


def without_surrogates(row):
    """The row with '\ufffd' for each lone surrogate, so that it can be written to a file."""
    return json.loads(SURROGATE.sub('\ufffd', json.dumps(row, ensure_ascii=False)))


# -----------------------------------------------------------------------------
# kinds of files


def refuse_other_formats(path):
    """Raises ValueError for files that are no text, and says how to convert them."""
    with report_unreadable(path), open_bytes(path) as f:
        begin = f.read(2048)
    extension = find_extension(path)
    for extensions, signature, description, remedy in OTHER_FORMATS:
        if extension in extensions or re.match(signature, begin, re.DOTALL):
            csv_path = os.path.splitext(path)[0] + '.csv'
            if csv_path == path:  # the name is wrong, but the file is not to be replaced
                csv_path = path + '.csv'
            remedy = remedy.format(path=path, csv_path=csv_path)
            raise ValueError(f'{path} is {description}; {remedy}')


# filled in twice: here with the function of pandas, by refuse_other_formats with the paths
PANDAS = (
    'convert it: python -c "import pandas; '
    "pandas.{read}('{{path}}').to_csv('{{csv_path}}', index=False)\""
)
PARQUET_TO_CSV = PANDAS.format(read='read_parquet')
FEATHER_TO_CSV = PANDAS.format(read='read_feather')
PICKLE_TO_CSV = PANDAS.format(read='read_pickle')
EXCEL_TO_CSV = 'save it as CSV (UTF-8) there, or ' + PANDAS.format(read='read_excel')

# (extensions, regular expression for the first bytes, description, remedy)
OTHER_FORMATS = [
    (('.parquet', '.pq'), rb'PAR1[\0-\x1f]', 'a Parquet file', PARQUET_TO_CSV),
    (('.feather', '.arrow'), rb'(ARROW1|FEA1)\0', 'an Arrow file', FEATHER_TO_CSV),
    (('.pkl', '.pickle'), rb'\x80[\x02-\x05][\x95c}\]]', 'a pickle file', PICKLE_TO_CSV),
    (('.xls',), rb'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1', 'an old Excel file', EXCEL_TO_CSV),
    (
        ('.xlsx', '.xlsm', '.xlsb', '.ods'),
        rb'PK\x03\x04.{0,2000}(\[Content_Types\]\.xml|xl/|opendocument\.spreadsheet)',
        'a spreadsheet',
        EXCEL_TO_CSV,
    ),
    (
        ('.zip', '.bz2', '.xz', '.zst', '.7z', '.rar', '.tar', '.tgz'),
        rb'PK\x03\x04|BZh[1-9]1AY|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!|.{257}ustar',
        'an archive',
        'unpack it and give the file inside; only gzip can be read as it is',
    ),
    (
        (),
        rb'(?i:(\xef\xbb\xbf)?\s*(<!doctype html|<html))',
        'a web page',
        'download the file itself, often with a link called "raw" or "download"',
    ),
    (
        (),
        rb'version https://git-lfs',
        "a pointer of Git's large file storage",
        'fetch the file itself: git lfs pull',
    ),
]


def find_extension(path):
    """'data/Mine.CSV.gz' -> '.csv'"""
    root, extension = os.path.splitext(path.lower())
    if extension == '.gz':
        _, extension = os.path.splitext(root)
    return extension


# -----------------------------------------------------------------------------
# bytes and text


def open_bytes(path):
    """The file for reading bytes, uncompressed. The content says if it is gzip, not the name."""
    with open(path, 'rb') as f:
        is_gzip = f.read(2) == b'\x1f\x8b'
    if is_gzip:
        return gzip.open(path, 'rb')
    return open(path, 'rb')


@contextlib.contextmanager
def report_unreadable(path):
    """Turns the several exceptions of gzip and codecs into a ValueError with a remedy."""
    try:
        yield
    except UnicodeError as error:
        raise ValueError(f'{path}: {error}; set --encoding to another one') from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f'{path}: its compression is damaged or cut off ({error}); copy or compress it again'
        ) from None


def open_text(path, encoding, newline):
    """The file for reading text. What cannot be decoded makes only its own row unusable."""
    codec = codecs.lookup(encoding).name
    errors = 'nanosentiment.mark'
    if codec == 'utf-8':
        codec = 'utf-8-sig'  # without the byte order mark, if there is one
    elif codec == 'cp1252':
        errors = 'nanosentiment.as_latin_1'
    return io.TextIOWrapper(open_bytes(path), codec, errors, newline)


def mark_undecodable(error):
    return UNDECODABLE, error.end


def decode_as_latin_1(error):
    """cp1252 has no characters for 5 bytes. Browsers read them as Latin-1, and so do we."""
    return error.object[error.start : error.end].decode('latin-1'), error.end


codecs.register_error('nanosentiment.mark', mark_undecodable)
codecs.register_error('nanosentiment.as_latin_1', decode_as_latin_1)

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: 'UTF-8',
    codecs.BOM_UTF32_LE: 'UTF-32',  # before UTF-16, because it begins with that one's mark
    codecs.BOM_UTF32_BE: 'UTF-32',
    codecs.BOM_UTF16_LE: 'UTF-16',
    codecs.BOM_UTF16_BE: 'UTF-16',
}


def find_encoding(path):
    """
    The encoding of a file, and a note for the user or ''.

    A byte order mark decides. Else it is UTF-8, if at least half of its non-ASCII characters are
    well-formed. Otherwise it is cp1252, the 8-bit encoding of Windows in Western languages, where
    a few are well-formed by accident: 'Ã©' looks like 'é'.
    """
    with open_bytes(path) as f:
        begin = f.read(4096)
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if begin.startswith(mark):
            return encoding, ''

    # UTF-16 without a mark: in Western languages most characters have one byte that is zero
    for encoding, zeros, others in (
        ('UTF-16-LE', begin[1::2], begin[0::2]),
        ('UTF-16-BE', begin[0::2], begin[1::2]),
    ):
        if zeros.count(0) > 0.7 * len(zeros) and others.count(0) == 0:
            return encoding, f'read as {encoding}, because every second byte is zero'

    n_characters = 0
    n_non_ascii = 0
    n_broken = 0
    with open_text(path, 'utf-8', newline='\n') as f:
        while text := f.read(SAMPLE_CHARACTERS):
            n_characters += len(text)
            n_non_ascii += len(text) - len(text.encode('ascii', errors='ignore'))
            n_broken += text.count(UNDECODABLE)
    if n_broken <= n_non_ascii / 2:
        return 'UTF-8', ''
    if n_broken > 0.3 * n_characters:  # French has 1 in 25, Russian most of its characters
        remedy = 'its letters are not Western: set --encoding, e.g. to cp1251 or gb18030'
    else:
        remedy = 'if letters look wrong, set --encoding'
    return 'cp1252', f'read as cp1252, because it is not UTF-8; {remedy}'


def find_newline(begin):
    """
    The `newline` of open() for a CSV file: '\\n' or, for all line ends, ''.

    Where lines end with LF or CRLF, a CR alone is no line end but a part of a text: pandas writes
    it there without quotes.
    """
    line_end = re.search('\r\n|\r|\n', begin)
    if line_end and line_end[0] == '\r':
        return ''
    return '\n'


# -----------------------------------------------------------------------------
# what a CSV file looks like


class Sample(NamedTuple):
    """The first lines of a CSV file, by which it is judged."""

    lines: list
    is_cut: bool  # the file goes on after them, perhaps inside a record


class Dialect(NamedTuple):
    """
    How the rows of a CSV file are written.

    quoting is what a quote inside a quoted field looks like: 'doubled', as the csv module, pandas
    and Excel write it; 'backslash', as MySQL and Spark do. 'none': quotes are ordinary characters.
    """

    delimiter: str
    quoting: str
    n_columns: int  # 0: not known yet


DELIMITERS = (',', ';', '\t', '|')
NO_DELIMITER = '\x1f'  # of a file with one column: a character that texts do not have
SEP_LINE = re.compile('"?sep=([^\r\n])"?[\r\n]', re.IGNORECASE)


def find_delimiter(sample):
    """
    The delimiter that gives most records as many fields as the first one has, and more than one.

    'text;label' above 'well, yes, fine;good' -> ';', though there are more commas.
    """
    best = NO_DELIMITER
    best_score = (0, 0)
    for delimiter in DELIMITERS:
        counts = count_fields(sample, delimiter)
        if not counts or counts[0] < 2:
            continue
        share = counts.count(counts[0]) / len(counts)
        score = (share, counts[0])
        if score > best_score:
            best = delimiter
            best_score = score
    return best


def count_fields(sample, delimiter):
    """The number of fields in each of the first records; [] if there is none."""
    lines = Lines(sample.lines)
    records = read_records(lines, Dialect(delimiter, 'doubled', 0), '')
    counts = []
    for _, fields, _ in itertools.islice(records, SAMPLE_RECORDS):
        if counts and sample.is_cut and lines.ran_out:
            break  # the sample ends inside this record
        counts.append(len(fields))
    return counts


def count_columns(counts):
    """
    The number of columns of a file without a header: the most fields of at least 1 row in 10.

    A row with fewer can be filled, while one with more cannot be used.
    """
    common = [n for n, n_rows in Counter(counts).items() if n_rows >= 0.1 * len(counts)]
    return max(common, default=max(counts))


def find_quoting(sample, delimiter, n_columns):
    """
    How the file's quotes are meant, judged by the records of the sample that hold a quote.

    Backslashes escape quotes if fewer records are broken then. In files with tabs, quotes are
    ordinary characters if they fit in less than 9 of 10 records. Thus GLUE's files, where a lone
    quote means nothing, are told from those that pandas and Excel write.
    """
    quoting = 'doubled'
    n_fitting, n_broken = count_quoted(sample, Dialect(delimiter, 'doubled', n_columns))
    if n_broken and any('\\"' in line for line in sample.lines):
        escaped = Dialect(delimiter, 'backslash', n_columns)
        n_fitting_escaped, n_broken_escaped = count_quoted(sample, escaped)
        if n_broken_escaped < n_broken:
            quoting = 'backslash'
            n_fitting = n_fitting_escaped
            n_broken = n_broken_escaped
    if delimiter == '\t' and n_fitting < 9 * n_broken:
        return 'none'
    return quoting


def count_quoted(sample, dialect):
    """The number of records whose quotes enclose fields and nothing else, and of all others."""
    n_fitting = 0
    n_broken = 0
    lines = Lines(sample.lines)
    for line in lines:
        if '"' not in hide(line, dialect.quoting):
            continue
        fields, is_broken = parse_record(line, lines, dialect)
        if sample.is_cut and lines.ran_out:
            break  # the sample ends inside this record
        # Each quote inside a field is written as two, and the quotes around fields come on top. A
        # quote inside a field that has none around it is one alone.
        n_quotes = hide(''.join(lines.record), dialect.quoting).count('"')
        n_inside = sum(field.count('"') for field in fields)
        if (
            is_broken
            or len(fields) > dialect.n_columns
            or n_quotes <= 2 * n_inside
            or swallows_rows(fields, lines.record, dialect)
        ):
            n_broken += 1
            lines.put_back()
        else:
            n_fitting += 1
    return n_fitting, n_broken


def name_columns(header):
    """[' text', '', 'text'] -> ['text', 'column 2', 'text.2']: no blanks, no two alike."""
    columns = {}  # of their names: a dict finds one of 20,000 at once, and keeps the order
    for i, name in enumerate(header):
        name = name.strip() or f'column {i + 1}'
        # a loop, because the header itself may have a column called 'text.2'
        while name in columns:
            name += f'.{i}'
        columns[name] = True
    return list(columns)


def find_sign_of_data(header, rows):
    """Why a header looks like a row of data, or ''."""
    for i, name in enumerate(header):
        name = name.strip()
        if is_number(name):
            return f'{name!r} is a number'
        if '://' in name:
            return f'{name[:60]!r} is a web address'
        if len(name) > 200:
            return f'{name[:40]!r}... has {len(name)} characters'
        # a label such as 'positive'; what stands below an empty name is no sign
        n_repeats = sum(len(row) > i and row[i].strip() == name for row in rows)
        if name and n_repeats > 1:
            return f'{name!r} is also in {n_repeats} of the next rows'
    return ''


def is_number(text):
    """Is it a number other than nan and infinity, which may be words?"""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


# -----------------------------------------------------------------------------
# CSV records


def read_records(lines, dialect, encoding):
    """Yields (line number, fields, reason) of each record; for `lines` see Lines."""
    delimiter, quoting, n_columns = dialect
    has_quotes = quoting != 'none'
    line_number = 1
    for line in lines:
        content = line.rstrip('\r\n')
        if not content:
            line_number += 1
            continue

        if has_quotes and ('"' in content or '\\' in content):
            fields, n_lines, reason = read_quoted(line, lines, dialect)
        else:  # most lines; much faster than the csv module
            fields, n_lines, reason = content.split(delimiter), 1, ''

        # Line ends may be mixed. A CR ends a line here only if complete rows are on both sides.
        if '\r' in content and n_lines == 1 and len(fields) != n_columns:
            rows = rows_between_cr(content, dialect, encoding)
            if rows:
                for fields, reason in rows:
                    yield line_number, fields, reason
                    line_number += 1
                continue

        flaw = find_flaw(fields, encoding)
        if flaw:
            fields = [SURROGATE.sub('\ufffd', field) for field in fields]
        yield line_number, fields, reason or flaw
        line_number += n_lines


def rows_between_cr(content, dialect, encoding):
    """(fields, reason) of the rows that CRs end in a line; [] if one of them were incomplete."""
    if dialect.n_columns < 2:
        return []
    rows = []
    lines = Lines(io.StringIO(content, newline=''))
    for _, fields, reason in read_records(lines, dialect, encoding):
        if len(fields) != dialect.n_columns:
            return []
        rows.append((fields, reason))
    return rows


# in reasons: cells of such a row may stand below the wrong column names
WRONG_NUMBER_OF_FIELDS = 'fields instead of'


def fit_fields(fields, n_columns):
    """As many fields as there are columns, and a reason if there are too many."""
    if len(fields) < n_columns:
        # spreadsheets and people leave out the empty cells at a row's end
        n_missing = n_columns - len(fields)
        return fields + [''] * n_missing, ''
    if not ''.join(fields[n_columns:]).strip():
        return fields[:n_columns], ''
    return fields, f'{len(fields)} {WRONG_NUMBER_OF_FIELDS} {n_columns}'


def read_quoted(line, lines, dialect):
    """A record that begins with `line` -> its fields, its number of lines, reason."""
    fields, is_broken = parse_record(line, lines, dialect)
    if not is_broken and not swallows_rows(fields, lines.record, dialect):
        return show(fields), len(lines.record), ''

    # The quotes do not fit. Perhaps one is never closed and has run on over good rows: then this
    # row is the first line alone, and the others are read again.
    lines.put_back()
    if dialect.quoting == 'doubled' and '\\"' in ''.join(lines.record):
        return read_quoted(line, lines, dialect._replace(quoting='backslash'))
    if dialect.delimiter == '\t':  # a quote without a meaning, as in GLUE's files
        return line.rstrip('\r\n').split('\t'), 1, ''

    # '"wow" they said,neg' is read as 'wow they said', as by pandas
    reader = csv.reader([hide(line, dialect.quoting), ''], delimiter=dialect.delimiter)
    fields = next(reader)
    if reader.line_num > 1:  # the reader has asked for the next line
        return [], 1, 'broken quoting: a quote is never closed'
    if 0 < dialect.n_columns < len(fields):
        reason = f'{len(fields)} {WRONG_NUMBER_OF_FIELDS} {dialect.n_columns}'
        return [], 1, f'broken quoting: {reason}'
    return show(fields), 1, ''


def parse_record(first_line, lines, dialect):
    """
    The fields of the record that begins with this line, and whether its quotes are broken.

    The csv module takes more lines for as long as a quote is open: lines.record has them all.
    """
    record = (hide(line, dialect.quoting) for line in lines.take_record(first_line))
    reader = csv.reader(record, delimiter=dialect.delimiter, strict=True)
    try:
        return next(reader), False
    except csv.Error:
        return [], True


def swallows_rows(fields, lines, dialect):
    """
    Has a quote that is never closed run on to another quote, over complete rows?

    Texts in quotes may well have lines that look like rows. So this is only believed of a record
    that could not be used anyway, or with tabs, which are rare in texts, if four lines or more look
    like that and hold no other quotes.
    """
    n_columns = dialect.n_columns
    if len(lines) == 1 or n_columns < 2:
        return False
    looks_complete = [line.count(dialect.delimiter) == n_columns - 1 for line in lines]
    if len(fields) == 1 or len(fields) > n_columns:
        return any(looks_complete[1:])
    if dialect.delimiter != '\t' or len(lines) < 4:
        return False
    n_quotes = sum(line.count('"') for line in lines)
    return n_quotes == 2 and all(looks_complete)


MAX_CHARACTERS = 1 << 24  # of one record, which must fit into memory
MANY_LINES = 100  # of one record, where quotes were often broken so far
MAX_READ_AGAIN = 10  # times, on average, before that counts


class Lines:
    """
    The lines of a file or a list. Those that a broken record has taken can be put back.

    Where each line opens a quote that is never closed, each would take all lines after it, and the
    time would grow with the square of the file: 195 kB took 131 s. So once the lines have been put
    back MAX_READ_AGAIN times, on average, a record gets no more than MANY_LINES.
    """

    def __init__(self, lines):
        self.source = iter(lines)
        self.waiting = deque()  # lines that were put back
        self.record = []  # the lines that the last record in quotes has taken
        self.ran_out = False  # has it asked for more lines than it got?
        self.n_read = 0  # lines from the source
        self.n_put_back = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.waiting:
            return self.waiting.popleft()
        line = next(self.source)
        self.n_read += 1
        return line

    def take_record(self, first_line):
        """Yields this line and, for as long as the caller wants more, the lines after it."""
        self.record = [first_line]
        self.ran_out = False
        yield first_line
        n_characters = len(first_line)
        is_limited = self.n_put_back > MAX_READ_AGAIN * self.n_read + MANY_LINES
        while n_characters < MAX_CHARACTERS and not (is_limited and len(self.record) >= MANY_LINES):
            line = next(self, None)
            if line is None:
                break
            n_characters += len(line)
            self.record.append(line)
            yield line
        self.ran_out = True

    def put_back(self):
        """All lines of the record but the first are read again."""
        self.n_put_back += len(self.record) - 1
        self.waiting.extendleft(reversed(self.record[1:]))


# Characters that no text holds stand for escaped quotes, and for a CR that is no line end, while
# the csv module splits a line.
HIDDEN_QUOTE = '\ud800'
HIDDEN_CR = '\ud801'
LONE_CR = re.compile(r'\r(?!\n|\Z)')
# A writer that escapes quotes also escapes the backslash and, in MySQL, the line end.
ESCAPED = re.compile(r'\\(["\\]|\r?\n|\r)')


def hide(line, quoting):
    """Replaces what the csv module would stumble over; `show` undoes it."""
    if '\r' in line.rstrip('\r\n'):
        line = LONE_CR.sub(HIDDEN_CR, line)
    if quoting == 'backslash':
        line = ESCAPED.sub(unescape, line)
    return line


def unescape(match):
    if match[1] == '"':
        return HIDDEN_QUOTE
    return match[1]


def show(fields):
    return [field.replace(HIDDEN_QUOTE, '"').replace(HIDDEN_CR, '\r') for field in fields]
