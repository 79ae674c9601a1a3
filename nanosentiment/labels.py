"""
What stands in a label column: one text for each label, and columns that hold no single label.

The functions here only read and describe. prepare.py prints what they return.
"""

import re
from collections import Counter

WHOLE_NUMBER = re.compile(r'([+-]?\d+)\.0+')
NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?', re.IGNORECASE)
WRITTEN_LIST = re.compile(r'\[.*\]|\{.*\}', re.DOTALL)
TRUTH_VALUES = {'true', 'false'}
BINARY_VALUES = {'0', '1', 'true', 'false'}
SEPARATORS = ',;|'

# a label column with more different numbers than this is taken for a quantity, see is_quantity
MANY_NUMBERS = 20


# -----------------------------------------------------------------------------
# for people


def shorten_line(text, width):
    """A text on one line of at most so many characters."""
    line = ' '.join(text.split())
    if len(line) > width:
        line = line[: width - 3] + '...'
    return line


# -----------------------------------------------------------------------------
# one text for each label


def canonical_label(text):
    """
    The one way in which a label is written here: ' 1.0' -> '1', 'True' -> 'true'.

    pandas writes the labels 0 and 1 as 0.0 and 1.0 as soon as one of them is missing, and Python,
    JSON and spreadsheets each have a true of their own. '01' stays, because it may be a code.
    """
    label = text.strip()
    whole = WHOLE_NUMBER.fullmatch(label)
    if whole:
        return whole[1]
    if label.lower() in TRUTH_VALUES:
        return label.lower()
    return label


def parse_label_names(text):
    """
    '0=negative, 1=positive' -> {'0': 'negative', '1': 'positive'}; '' -> {}.

    ValueError if a part has no '=', or if a label is named twice.
    """
    names = {}
    for part in filter(None, text.split(',')):
        label, equals, name = part.partition('=')
        label = canonical_label(label)
        name = name.strip()
        if not equals or not label or not name:
            what = f'label_names={text!r}: {part.strip()!r} names no label'
            raise ValueError(f"{what}; write --label_names='0=negative,1=positive'")
        if label in names:
            raise ValueError(f'label_names={text!r} names label {label} twice; name it once')
        names[label] = name
    return names


def label_order(label):
    """The key that sorts labels: numbers first and by value, so that '2' comes before '10'."""
    if re.fullmatch(r'-?\d+(\.\d+)?', label):
        return 0, float(label), label
    return 1, 0, label


# -----------------------------------------------------------------------------
# columns that hold no single label


def describe_labels(counts, binary_columns=(), label_column=''):
    """
    What a person should know of the labels of the training rows, as a list of sentences.

    counts         {label: number of rows}
    binary_columns names of the other columns that hold nothing but 0 and 1
    """
    notes = []
    if are_combinations(counts):
        example = next(label for label in counts if split_label(label))
        notes.append(
            f'labels such as {example!r} look like several labels in one; each combination is '
            'learned as a label of its own, because a text has one label here; to learn them '
            'apart, give each a column of 0 and 1 and train once for each --label_column'
        )
    is_binary = set(counts) <= BINARY_VALUES
    if is_binary and binary_columns:
        others = ', '.join(binary_columns)
        notes.append(
            f'{others} also hold only 0 and 1, like {label_column}; if these are several labels '
            'of a text, train once for each: a model here learns one column at a time'
        )
    if is_quantity(counts):
        notes.append(
            f'the labels are {len(counts)} different numbers, which looks like a quantity; each '
            'is learned as a label of its own, without an order; better make a few classes of them'
        )
    single = [label for label, n in counts.items() if n == 1]
    if single:
        notes.append(
            f'{len(single)} of {len(counts)} labels have one row only ({shorten(single)}); '
            'they can be learned, but neither validated nor tested'
        )
    return notes


def are_combinations(counts):
    """
    Are some labels lists of other labels, as 'toxic,spam' beside 'toxic' and 'spam'?

    A written list such as "['toxic', 'spam']" always is one. Otherwise each part must occur in
    two labels at least, because a single name may have a comma: 'Bosnia, Herzegovina'.
    """
    n_labels_with = Counter()
    lists = []
    for label in counts:
        parts = split_label(label)
        if WRITTEN_LIST.fullmatch(label):
            return True
        n_labels_with.update(parts or {label})
        if parts:
            lists.append(parts)

    def are_labels(parts):
        return all(n_labels_with[part] > 1 for part in parts)

    return any(are_labels(parts) for parts in lists)


def split_label(label):
    """The parts of a label that lists several, as a set; an empty set for a single label."""
    is_list = WRITTEN_LIST.fullmatch(label)
    if is_list:
        label = label[1:-1]
    parts = {part.strip().strip('\'"') for part in re.split(f'[{SEPARATORS}]', label)}
    if is_list or len(parts) > 1:
        return parts
    return set()


def is_quantity(counts):
    """Are the labels many different numbers, such as prices or ratings with decimals?"""
    if len(counts) <= MANY_NUMBERS:
        return False
    if not all(NUMBER.fullmatch(label) for label in counts):
        return False
    has_decimals = any('.' in label for label in counts)
    rows_per_label = sum(counts.values()) / len(counts)
    return has_decimals or rows_per_label < 10


def shorten(names, n_shown=5):
    """['a', 'b', 'c'], 2 -> 'a, b and 1 more'"""
    shown = ', '.join(name[:40] for name in names[:n_shown])
    if len(names) <= n_shown:
        return shown
    return f'{shown} and {len(names) - n_shown} more'
