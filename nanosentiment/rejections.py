"""Rows that cannot be used: counted as a file is read, and described in one line with a remedy."""

import math
import re
from collections import Counter

from nanosentiment.metrics import describe_column
from nanosentiment.tables import WRONG_NUMBER_OF_FIELDS

# With more labels than this, rejected rows are not compared by label.
MAX_LABELS_COMPARED = 500
MAX_LABELS_SHOWN = 5
# The shares of the labels differ if chance would make them differ as much in 1 of 20 files.
P_VALUE = 0.05

# (pattern, what to do about the rows with such a reason). The first pattern that is found in a
# reason decides, and the reasons that share a pattern are of one kind. fill_in puts the user's
# columns in place of {label_column} and the like.
REMEDIES = [
    (
        r'^{label_column} is (a list|an object)',
        'this is a single-label tool: write one label for each row, or give each label a column of '
        '0 and 1 and train once for each --label_column',
    ),
    (r'is an object', 'write the text as a value of its own: pandas.json_normalize does that'),
    (r'is a list', 'write the text as one string'),
    (r'^no text', 'is --text_column={text_column} right? If it is, these rows lack a text'),
    (
        r'^no second text',
        'is --text_pair_column={text_pair_column} right? If it is, these rows lack a second text',
    ),
    (r'^no label', 'is --label_column={label_column} right? If it is, these rows lack a label'),
    (r'^not a JSON object', 'write each row as an object: {{"text": "...", "label": "..."}}'),
    (r'^not ', "set --encoding to the file's own, e.g. cp1252, cp1251 or gb18030"),
    (r'^NUL byte', 'save the file as text in UTF-8'),
    (r'lone surrogate', 'save the file again, with an emoji as one character'),
    (r'never closed', 'close the quote, and write a quote inside a quoted text twice'),
    (
        WRONG_NUMBER_OF_FIELDS,
        'set --delimiter if columns are separated by another character; if not, write texts with a '
        'delimiter in quotes',
    ),
    (r'none of train, validation and test', 'is --split_column={split_column} right?'),
    (r'unknown to training', 'correct these labels, or rename them with --label_names'),
]


class Rejections:
    """The rows of one file that cannot be used. Holds a few counts, so that any number fits."""

    def __init__(self, columns):
        """columns  {setting: the columns as the user has set them}, for the remedies"""
        self.columns = columns
        patterns = [fill_in(pattern, columns, re.escape) for pattern, _ in REMEDIES]
        self.patterns = [re.compile(pattern) for pattern in patterns]
        self.n_rows = 0  # of the file, usable or not
        self.kinds = Counter()  # {number in REMEDIES: rows}
        self.first = {}  # {number in REMEDIES: (line number, reason) of the first row}
        self.labels = Counter()  # {label: rows}, of those rows whose label is known

    def add(self, line_number, reason, label):
        """Counts a row. label is '' if the row has none that can be read."""
        kind = self.find_kind(reason)
        self.kinds[kind] += 1
        self.first.setdefault(kind, (line_number, reason))
        if label and (label in self.labels or len(self.labels) <= MAX_LABELS_COMPARED):
            self.labels[label] += 1

    def find_kind(self, reason):
        """The number in REMEDIES of a reason's kind; len(REMEDIES) if no pattern is found in it."""
        for kind, pattern in enumerate(self.patterns):
            if pattern.search(reason):
                return kind
        return len(REMEDIES)

    def summary(self, usable_counts):
        """
        What report.json holds. usable_counts is {label: usable rows of this file}.

        Example: {'rows': 80, 'rejected': 13, 'reason': 'no text', 'with_reason': 13, 'line': 7,
        'by_label': [['neg', 13, 40], ['pos', 0, 40]], 'remedy': ...}
        """
        summary = {'rows': self.n_rows, 'rejected': self.kinds.total()}
        if not self.kinds:
            return summary
        kind, n = self.kinds.most_common(1)[0]
        line_number, reason = self.first[kind]
        summary |= {'reason': reason, 'with_reason': n, 'line': line_number}
        summary['by_label'] = compare_labels(self.labels, usable_counts)
        summary['remedy'] = ''
        if kind < len(REMEDIES):
            _, remedy = REMEDIES[kind]
            summary['remedy'] = fill_in(remedy, self.columns)
        return summary


def fill_in(template, columns, quote=str):
    return template.format(**{name: quote(column) for name, column in columns.items()})


def compare_labels(rejected_counts, usable_counts):
    """
    [[label, rejected rows, all rows], ...] of the labels that lose the largest and the smallest
    share of their rows, or [] if the shares do not differ by more than chance.
    """
    labels = rejected_counts | usable_counts  # only the keys matter
    if len(labels) > MAX_LABELS_COMPARED:
        return []
    counts = Counter()
    for label, n in rejected_counts.items():
        counts['rejected', label] += n
    for label, n in usable_counts.items():
        counts['usable', label] += n
    if not counts or describe_column(counts).get('p', 1.0) >= P_VALUE:
        return []

    shares = []
    for label in labels:
        n_rejected = rejected_counts.get(label, 0)
        n = n_rejected + usable_counts.get(label, 0)
        shares.append([label, n_rejected, n])
    shares.sort(key=lambda item: -item[1] / item[2])
    if len(shares) <= MAX_LABELS_SHOWN:
        return shares
    return shares[: MAX_LABELS_SHOWN - 1] + shares[-1:]


def describe_rejected(path, summary, list_path=''):
    """
    The line for people. list_path is where all these rows are listed, '' if they are not.

    Example: 'mine.csv: 13 of 80 rows cannot be used: no text (13 rows, the first in line 7); by
    label neg: 13 of 40, pos: 0 of 40; the list is data/mine/gpt2-01234567/rejected.csv'
    """
    n = summary['with_reason']
    unit = 'row' if n == 1 else 'rows'
    others = ' and other reasons' if n < summary['rejected'] else ''
    parts = [
        f'{path}: {summary["rejected"]:,} of {summary["rows"]:,} rows cannot be used: '
        f'{summary["reason"]} ({n:,} {unit}, the first in line {summary["line"]}){others}'
    ]
    labels = [f'{label[:40]}: {n:,} of {of:,}' for label, n, of in summary['by_label']]
    if labels:
        parts.append(f'by label {", ".join(labels)}')
    if list_path:
        parts.append(f'the list is {list_path}')
    return '; '.join(parts)


def has_too_many(summary, max_rejected):
    """Whether more than this share of a file's rows cannot be used."""
    return summary['rejected'] > max_rejected * summary['rows']


def describe_remedy(summary):
    """What to do if too many rows of a file cannot be used, to go on behind describe_rejected."""
    parts = []
    if summary['remedy']:
        parts.append(summary['remedy'])
    share = summary['rejected'] / summary['rows']
    if share < 1:
        enough = math.ceil(100 * share) / 100
        parts.append(f'to go on without these rows, set --max_rejected={enough}')
    return '; '.join(parts)
