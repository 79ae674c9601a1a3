"""Rows of .csv, .tsv and .jsonl files, one at a time, each with the reason if it cannot be used."""

import csv
import itertools
import json
import os
import re

# Bytes that are not UTF-8 are read as surrogates (errors='surrogateescape'). JSON may also spell
# one out: "\ud800".
FLAW = re.compile('[\0\ud800-\udfff]')

# A longer field is taken for a quote that is never closed. The csv module's own limit is 131,072.
MAX_CHARACTERS = 1 << 22
csv.field_size_limit(MAX_CHARACTERS)


def read_rows(path):
    """
    Yields (line number, {column: str}, reason) of each row; reason is '' if the row can be used.

    A .tsv has no quotes, like GLUE's. A .csv is separated by commas, semicolons or tabs, and may
    have line ends inside quotes. A .jsonl has one object per line, and each of its rows has only
    the keys of its own object. A broken row costs only itself; a broken header raises ValueError.
    """
    extension = os.path.splitext(path)[1].lower()
    # newline='\n' leaves a '\r' inside quotes as it is; at the end of a line it is stripped below
    with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='\n') as f:
        if extension == '.jsonl':
            yield from read_jsonl(f)
        elif extension == '.tsv':
            yield from read_table(f, delimiter='\t', has_quotes=False)
        else:
            yield from read_table(f, delimiter=None, has_quotes=True)


def find_flaw(strings):
    """The reason why strings cannot be written and tokenized, or ''."""
    flaw = FLAW.search(''.join(strings))
    if not flaw:
        return ''
    if flaw[0] == '\0':
        return 'NUL byte'
    return 'not UTF-8'


# -----------------------------------------------------------------------------
# .jsonl


def read_jsonl(f):
    """
    Yields the rows of an open .jsonl file, as read_rows does.

    Rows may lack keys that others have: use row.get(column, '').
    """
    for line_number, line in enumerate(f, start=1):
        if not line.strip('\r\n'):
            continue
        row = parse_object(line)
        if row is None:
            yield line_number, {}, 'not a JSON object'
            continue
        reason = find_flaw([*row, *row.values()])
        yield line_number, row, reason


def parse_object(line):
    """'{"a": 1, "b": null}' -> {'a': '1', 'b': ''}; None if the line is not a JSON object."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):  # RecursionError: a thousand open brackets
        return None
    if not isinstance(parsed, dict):
        return None
    row = {}
    for key, value in parsed.items():
        row[key] = '' if value is None else str(value)
    return row


# -----------------------------------------------------------------------------
# .csv and .tsv


def read_table(f, delimiter, has_quotes):
    """
    Yields the rows of an open .csv or .tsv file, as read_rows does.

    With delimiter None it is the one of , ; and tab that occurs most often in the header.
    """
    columns = None
    line_number = 1
    # not `for line in f`, which disables the f.tell() of read_quoted
    while line := f.readline():
        n_lines = 1
        if not line.strip('\r\n'):
            line_number += n_lines
            continue

        # the first line that is not empty is the header
        if delimiter is None:
            delimiter = max(',;\t', key=line.count)

        reason = ''
        if has_quotes and '"' in line:
            fields, n_lines, reason = read_quoted(f, line, delimiter)
        else:  # most lines; much faster than the csv module
            fields = line.rstrip('\r\n').split(delimiter)
        if not reason:
            reason = find_flaw(fields)

        if columns is None:
            if reason:
                raise ValueError(
                    f'{f.name}: the header in line {line_number} cannot be read ({reason}); '
                    'correct it, and save the file in UTF-8'
                )
            columns = name_columns(fields)
        else:
            if not reason and len(fields) != len(columns):
                reason = f'{len(fields)} fields, the header has {len(columns)}'
            yield line_number, dict(zip(columns, fields)), reason
        line_number += n_lines


def read_quoted(f, line, delimiter):
    """A row whose first line has been read already -> its fields, its number of lines, reason."""
    position = f.tell()
    # the reader takes more lines from f for as long as a quote is open
    lines = itertools.chain([line], iter(f.readline, ''))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num, ''
    except csv.Error as error:
        # a quote that is never closed may have swallowed good rows: go back to the next line
        f.seek(position)
        return [], 1, f'broken quoting: {error}'


def name_columns(header):
    """[' text', 'id', 'text'] -> ['text', 'id', 'text.2']: without blanks, no two alike."""
    columns = []
    for i, name in enumerate(header):
        name = name.strip()
        # a loop, because the header itself may have a column called 'text.2'
        while name in columns:
            name += f'.{i}'
        columns.append(name)
    return columns
