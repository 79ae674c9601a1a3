"""
The rows of a table with their answers: how sample_classify.py and its page label a file.

A table keeps all its rows and all its cells. A row that cannot be classified has a reason in place
of an answer. The mistakes of a user are a ValueError of one line.
"""

import csv
import itertools
from collections import Counter
from json import dumps, loads
from typing import NamedTuple

from nanosentiment.columns import check_known, parse_columns, row_text
from nanosentiment.files import to_json
from nanosentiment.tables import cell_text, find_extension

# what is written by the extension of a file; another one is CSV
FORMATS = {
    '.csv': 'csv',
    '.tsv': 'tsv',
    '.tab': 'tsv',
    '.json': 'json',
    '.jsonl': 'json',
    '.ndjson': 'json',
}
CHUNK_SIZE = 2048  # how many texts or rows are in memory at a time
# A JSON file with another key in each row would be a table whose size grows with the square of the
# rows.
MAX_COLUMNS = 1000
# in place of an answer to a blank text, so that there are as many answers as texts
NO_ANSWER = {
    'label': '',
    'probability': None,
    'runner_up': '',
    'probabilities': {},
    'truncated': False,
}


def format_of(path):
    """What a file of this name is written as: 'csv', 'tsv' or 'json', an object on each line."""
    return FORMATS.get(find_extension(path), 'csv')


# -----------------------------------------------------------------------------
# columns


def all_columns_of(table):
    """The names of all columns of a table. ValueError if there is no row with any."""
    columns = dict.fromkeys(table.columns)  # a dict keeps the order, each name once
    if table.is_json:
        # its rows may have different keys, while the header must have all of them
        for _, row, _ in table:
            columns.update(dict.fromkeys(row))

    first_row = next(iter(table), None)
    if first_row is None:
        remedy = 'write one line for each row below a header, or a .txt file with a text per line'
        raise ValueError(f'{table.path} has no rows; {remedy}')
    if not columns:
        line_number, _, reason = first_row
        what = f'{table.path} has no row that can be read (line {line_number}: {reason})'
        raise ValueError(f'{what}; save it as an array of objects, or one JSON object on each line')
    return list(columns)


def check_number_of_columns(table, columns, file_format):
    """ValueError if a JSON file has too many different keys for a table of rows and columns."""
    if table.is_json and file_format != 'json' and len(columns) > MAX_COLUMNS:
        what = f'{table.path} has {len(columns):,} different keys, too many for columns of a table'
        raise ValueError(f'{what}; name a .jsonl file with --output=, or set --json=True')


def find_text_columns(table, columns, classifier, text_column='', text_pair_column=''):
    """
    The columns that are the text, and those that are the second text of pairs, [] without pairs.

    They are those of the settings, else as in training; without pairs an only column is the text.
    ValueError if one of them is not among the columns.
    """
    recipe = classifier.checkpoint['recipe']
    pair_column = text_pair_column or recipe.get('text_pair_column', '')
    if text_pair_column and not classifier.has_pairs:
        raise ValueError(
            'the run was trained with single texts, not pairs; leave out --text_pair_column'
        )
    if len(columns) == 1 and not text_column and not pair_column:
        return columns, []  # as in a .txt file, whatever the column was called in training
    text_columns = parse_columns(text_column or recipe['columns'][0], columns)
    check_known(table.path, columns, 'text_column', text_columns)
    if not pair_column:
        return text_columns, []
    pair_columns = parse_columns(pair_column, columns)
    check_known(table.path, columns, 'text_pair_column', pair_columns)
    return text_columns, pair_columns


# -----------------------------------------------------------------------------
# answers


class AnsweredRow(NamedTuple):
    """A row of a table with its answer."""

    line_number: int
    cells: dict  # by column
    text: str  # '' if there is none
    answer: dict | None  # as Classifier.classify gives it
    reason: str  # why there is no answer, else ''


def answer_rows(table, text_columns, pair_columns, answer_texts):
    """
    Yields an AnsweredRow for each row of a table, classified in chunks.

    answer_texts takes a list of texts and gives an answer for each, such as Classifier.classify.
    """
    numbered_rows = iter(table)
    while chunk := list(itertools.islice(numbered_rows, CHUNK_SIZE)):
        read_rows = []
        texts = []  # of the rows without a reason
        for line_number, cells, reason in chunk:
            text = ''
            if not reason:
                text, reason = row_text(cells, text_columns, pair_columns)
            if not reason:
                texts.append(text)
            read_rows.append((line_number, cells, text, reason))

        answers = iter(answer_texts(texts))
        for line_number, cells, text, reason in read_rows:
            answer = None
            if not reason:
                answer = next(answers)
            yield AnsweredRow(line_number, cells, text, answer, reason)


class AnswerCounts:
    """How many rows have an answer, how many were cut as too long, and why the others have none."""

    def __init__(self):
        self.n_rows = 0
        self.n_cut = 0
        self.n_rows_of_reason = Counter()
        self.first_reason = ''

    def add(self, row):
        """Counts an AnsweredRow."""
        self.n_rows += 1
        if row.answer is not None:
            self.n_cut += row.answer['truncated']
            return
        # 'broken quoting: ...' and the like are many; the kind is what matters
        self.n_rows_of_reason[row.reason.partition(':')[0]] += 1
        if not self.first_reason:
            self.first_reason = f'line {row.line_number} ({row.reason})'

    @property
    def n_without(self):
        return self.n_rows_of_reason.total()

    def describe(self):
        """'98 of 100 rows classified, 3 cut as too long'"""
        n_answered = self.n_rows - self.n_without
        return f'{n_answered:,} of {self.n_rows:,} rows classified, {self.n_cut:,} cut as too long'

    def describe_missing(self, path, reason_column):
        """A line about the rows without an answer, '' if each has one."""
        if self.n_without == 0:
            return ''
        [(reason, n)] = self.n_rows_of_reason.most_common(1)
        what = f'{path}: {self.n_without:,} of {self.n_rows:,} rows have no answer'
        why = f'most often because of: {reason} ({n:,}); the first is {self.first_reason}'
        return f'{what}, {why}; see the column {reason_column}'


# -----------------------------------------------------------------------------
# writing


def free_name(name, taken):
    """The name, with 'predicted_' in front as often as needed to be new."""
    while name in taken:
        name = 'predicted_' + name
    return name


class AnswerWriter:
    """
    Writes the rows of a table with their answers to an open file, as 'csv', 'tsv' or 'json'.

    columns are those of the table. contents are the names of what is added to each row: keys of an
    answer, and 'p(<label>)' for a label's probability. In the file they may have other names:

    names  {'label': 'predicted_label', ...}, where the table already has a column of that name
    """

    def __init__(self, file, columns, contents, file_format):
        self.file = file
        self.names = {name: free_name(name, columns) for name in contents}
        self.table = None
        if file_format != 'json':
            # Cells are quoted where needed, in a .tsv too, as spreadsheets and pandas do. Lines end
            # with the csv module's \r\n, as RFC 4180 has it.
            tab_or_comma = '\t' if file_format == 'tsv' else ','
            all_columns = [*columns, *self.names.values()]
            self.table = csv.DictWriter(file, all_columns, delimiter=tab_or_comma)
            self.table.writeheader()

    def write(self, row):
        """Writes an AnsweredRow."""
        if row.answer is None:
            # null and not '' in JSON, where a column of numbers should have nothing else
            contents = {'label': '', 'runner_up': '', 'reason': row.reason}
        else:
            contents = row.answer | {'reason': ''}
            for label, probability in row.answer['probabilities'].items():
                contents[f'p({label})'] = probability
        cells = dict(row.cells)
        for name, column in self.names.items():
            cells[column] = contents.get(name)

        if self.table is None:
            self.file.write(json_text(cells) + '\n')
        else:
            self.table.writerow({name: csv_cell(value) for name, value in cells.items()})


def json_text(value):
    """A value from JSON as JSON. NaN, with which pandas marks an empty cell, becomes null."""
    try:
        return to_json(value, ensure_ascii=False)
    except ValueError:
        value = loads(dumps(value), parse_constant=lambda name: None)
        return to_json(value, ensure_ascii=False)


def csv_cell(value):
    """A value from JSON as the text of a cell: None -> '', True -> 'true', ['a'] -> '["a"]'."""
    content, reason = cell_text(value)
    if reason:  # a list or an object
        return json_text(value)
    return content
