"""
One pass over the raw files of a data set: raw rows -> clean texts, and what to know of the files.

scan_files makes a Scan. describe_files turns it into the part of report.json that is about the
files, say_findings prints that for people, and check_scan stops if there is nothing to learn from.
"""

import csv
import os
from array import array
from collections import Counter, defaultdict

import numpy as np

from configurator import print_error
from nanosentiment.cleaning import clean_or_keep
from nanosentiment.columns import check_keys, find_columns, row_label, row_text
from nanosentiment.labels import describe_labels, label_order, shorten
from nanosentiment.memmaps import MAX_LABELS
from nanosentiment.pairs import show_pair
from nanosentiment.rejections import (
    Rejections,
    describe_rejected,
    describe_remedy,
    has_too_many,
)
from nanosentiment.splitting import LEFT_OUT, TEST, TRAIN, VAL
from nanosentiment.tables import WRONG_NUMBER_OF_FIELDS, Table, cell_text

# what a split column may say, in any case; the files' own names are among these words
SPLIT_WORDS = {
    'train': TRAIN,
    'training': TRAIN,
    'val': VAL,
    'valid': VAL,
    'validation': VAL,
    'dev': VAL,
    'test': TEST,
    'testing': TEST,
}
# pairs of value and label in a column; one with so many is no category for describe_column
MAX_COMBINATIONS = 1000
# what a column of zeros and ones may hold
BINARY_TEXTS = ('0', '1', '0.0', '1.0', 'true', 'false', 'True', 'False', 'TRUE', 'FALSE')
EXCERPT_WORDS = 20  # of the example of what cleaning changes
NO_LABEL = ''  # what all texts are counted under if they have no labels


# -----------------------------------------------------------------------------
# raw rows -> clean texts


def scan_files(temp, folder, paths, recipe):
    """
    Raw files -> Scan; writes temp/texts, the clean texts for read_texts, and folder/rejected.csv.

    paths    {split: path}, the training file first, because it decides which labels there are
    recipe   of prepare.py: the columns, how tables are read, and how texts are cleaned

    Raises ValueError if a file cannot be read, lacks a column or has too many labels.
    """
    scan = Scan()
    with (
        # '\n' alone ends a line, on Windows too, for a text may hold '\r'
        open(f'{temp}/texts', 'w', encoding='utf-8', newline='\n') as texts_file,
        # names of files may hold what UTF-8 has not
        open(
            f'{folder}/rejected.csv', 'w', newline='', encoding='utf-8', errors='backslashreplace'
        ) as rejected_file,
    ):
        rejected = csv.writer(rejected_file)
        rejected.writerow(('file', 'line', 'reason'))
        for split_name, path in paths.items():
            scan_file(scan, split_name, path, recipe, texts_file, rejected)
        leave_out_unknown(scan, paths, rejected)
    return scan


def open_table(split_name, path, recipe):
    """A raw file as a Table, and its columns as find_columns returns them."""
    table = Table(path, **recipe['table'])
    group_column = ''
    if split_name == 'train':  # the rows of other files are not divided between splits
        group_column = recipe.get('group_column', '')
    columns = find_columns(
        table,
        *recipe['columns'],
        split_column=recipe['split_column'],
        group_column=group_column,
        text_pair_column=recipe.get('text_pair_column', ''),
        is_labelled=recipe.get('labelled', True),
    )
    return table, columns


def scan_file(scan, split_name, path, recipe, texts_file, rejected):
    """Adds one raw file to a Scan, its clean texts and its rejected rows to the open files."""
    text_column, label_column = recipe['columns']
    split_column = recipe['split_column']
    text_pair_column = recipe.get('text_pair_column', '')
    is_labelled = recipe.get('labelled', True)
    table, columns = open_table(split_name, path, recipe)
    pair_columns = columns.get('text_pair_column', [])
    group_columns = columns.get('group_column', [])
    rejections = Rejections(
        {
            'text_column': text_column,
            'label_column': label_column,
            'split_column': split_column,
            'text_pair_column': text_pair_column,
        }
    )
    scan.notes[split_name] = table.notes
    scan.rejections[split_name] = rejections
    split_number = SPLIT_WORDS[split_name]

    for row_number, (line_number, row, reason) in enumerate(table):
        raw_text, text_reason = row_text(row, columns['text_column'], pair_columns)
        if table.kind == 'txt' and not reason and text_reason:
            continue  # a blank line, as it stands between paragraphs
        rejections.n_rows += 1
        label, label_reason = NO_LABEL, ''
        if is_labelled:
            label, label_reason = row_label(row, label_column, recipe['label_names'])
        if WRONG_NUMBER_OF_FIELDS in reason and label not in scan.label_numbers:
            label = ''  # what stands in its place belongs to another column
        reason = reason or text_reason or label_reason
        if split_column and not reason:
            split_number, reason = row_split(row, split_column)
        if reason:
            rejected.writerow((path, line_number, reason))
            rejections.add(line_number, reason, label)
            continue

        text, is_emptied = clean_or_keep(raw_text, recipe)
        # no text contains NUL, so it can stand for a line end
        texts_file.write(text.replace('\n', '\0') + '\n')
        scan.add_row(text, label, split_number, row_number, line_number)
        scan.add_group(row, group_columns, text)
        if is_emptied:
            scan.n_emptied += 1
        if text != raw_text:
            scan.add_cleaning(show_pair(raw_text), show_pair(text), split_number, row_number)
        if split_number == TRAIN:
            scan.add_columns(row, label, label_column)

        if len(scan.label_numbers) > MAX_LABELS:
            raise ValueError(
                f'{path}: there are more than {MAX_LABELS:,} labels up to line {line_number}; '
                f'is --label_column={label_column} right?'
            )

    if rejections.n_rows == 0:
        raise ValueError(f'{path} has no rows; is it the right file?')
    check_keys(table, columns)


def row_split(row, column):
    """The split that a row's cell names, and the reason if it names none: 'Dev' -> VAL, ''"""
    word, _ = cell_text(row.get(column))
    split_number = SPLIT_WORDS.get(word.strip().lower())
    if split_number is None:
        return TRAIN, f'{column} says {word[:40]!r}, which is none of train, validation and test'
    return split_number, ''


def leave_out_unknown(scan, paths, rejected):
    """Rejects validation rows whose label no training row has: it would spoil their loss."""
    splits = np.asarray(scan.splits)
    labels = np.asarray(scan.labels)
    is_train = splits == TRAIN
    if not is_train.any():
        return  # check_scan will say so
    is_unknown = (splits == VAL) & ~np.isin(labels, labels[is_train])

    split_name = 'val' if 'val' in paths else 'train'
    label_names = list(scan.label_numbers)
    for row in np.flatnonzero(is_unknown).tolist():
        line_number = scan.line_numbers[row]
        label = label_names[scan.labels[row]]
        reason = f'label {label[:40]!r} is unknown to training'
        rejected.writerow((paths[split_name], line_number, reason))
        scan.rejections[split_name].add(line_number, reason, label)
        scan.splits[row] = LEFT_OUT


def read_texts(temp):
    """Yields the clean texts that scan_files has written, in the order of the Scan's rows."""
    with open(f'{temp}/texts', encoding='utf-8', newline='\n') as f:
        for line in f:
            yield line[:-1].replace('\0', '\n')


# -----------------------------------------------------------------------------
# what the pass finds out


class Scan:
    """A few numbers of each usable row, and counts of the files. It holds no texts."""

    def __init__(self):
        # of each usable row, those of the training file first
        self.labels = array('i')  # numbers in order of first appearance, see label_numbers
        self.splits = array('B')  # as its file or split column says; TRAIN may still be split
        self.row_numbers = array('q')  # where it stands in its file, from 0
        self.line_numbers = array('q')  # the first of its lines there, from 1
        self.hashes = array('q')  # of the clean text, alike for equal texts
        self.groups = array('q')  # with a group_column, of each row of the training file
        # of all usable rows together
        self.label_numbers = {}  # {label: number}
        self.n_emptied = 0  # texts of which cleaning would leave nothing
        self.n_cleaned = 0  # texts that cleaning changes by more than white space
        self.cleaning_example = {}  # the first of these in the training file
        # of the columns of the training file
        self.n_present = Counter()  # {column: rows with a value}
        self.column_counts = defaultdict(Counter)  # {column: {(hash of the value, label): rows}}
        # of the files
        self.notes = {}  # {split: what was guessed of its file}
        self.rejections = {}  # {split: Rejections}

    @property
    def is_labelled(self):
        return NO_LABEL not in self.label_numbers

    def add_row(self, text, label, split_number, row_number, line_number):
        """Adds a usable row with its clean text."""
        self.labels.append(self.label_numbers.setdefault(label, len(self.label_numbers)))
        self.splits.append(split_number)
        self.row_numbers.append(row_number)
        self.line_numbers.append(line_number)
        # Python's hash of a text differs between processes. This is safe, because it only matters
        # which hashes are equal, and the shuffle depends on row numbers and split_seed.
        self.hashes.append(hash(text))

    def add_group(self, row, group_columns, text):
        """Keeps a number that the rows of a group share; a row without a value is its own group."""
        for column in group_columns:  # one, or none
            value, _ = cell_text(row.get(column))
            value = value.strip()
            self.groups.append(hash((column, value)) if value else hash(text))

    def add_columns(self, row, label, label_column):
        """Counts the values of a training row, for metrics.describe_column."""
        for column, value in row.items():
            if column == label_column:
                continue
            if not isinstance(value, str):  # JSON
                value, reason = cell_text(value)
                value = value or reason  # a list is a value, too
            if value:
                self.n_present[column] += 1
            counts = self.column_counts[column]
            # a column with more is no category, and to count on would only take memory
            if len(counts) < MAX_COMBINATIONS:
                counts[hash(value), label] += 1

    def add_cleaning(self, raw_text, text, split_number, row_number):
        """Counts a text if cleaning has changed its words."""
        raw_words = raw_text.split()
        words = text.split()
        if words == raw_words:
            return
        self.n_cleaned += 1
        if split_number == TRAIN and not self.cleaning_example:
            n_same = count_common(raw_words, words)
            self.cleaning_example = {
                'row': row_number,
                'before': excerpt(raw_words, n_same),
                'after': excerpt(words, n_same),
            }

    def count_by_label(self, split_numbers):
        """-> {label: rows that their file or the split column says are in one of these splits}"""
        is_counted = np.isin(np.asarray(self.splits), split_numbers)
        counts = np.bincount(np.asarray(self.labels)[is_counted])
        return {name: n for name, n in zip(self.label_numbers, counts.tolist()) if n > 0}


def count_common(words, other_words):
    """How many words at the begin of two lists are the same."""
    n = 0
    for word, other in zip(words, other_words):
        if word != other:
            break
        n += 1
    return n


def excerpt(words, position):
    """Some words around a position on one line, with ... for what is left out."""
    begin = max(position - EXCERPT_WORDS // 4, 0)
    end = begin + EXCERPT_WORDS
    parts = words[begin:end]
    if begin > 0:
        parts.insert(0, '...')
    if end < len(words):
        parts.append('...')
    return ' '.join(parts)


def number_labels(scan):
    """
    -> label_names, unknown_labels, labels (n,) uint16

    label_names are those of training rows, and unknown_labels those that only test rows have. The
    labels of the rows count through both. A row in LEFT_OUT has a number without a meaning.
    Texts without labels have the number 0 of an empty list.
    """
    if not scan.is_labelled:
        return [], [], np.zeros(len(scan.labels), dtype=np.uint16)
    train_counts = scan.count_by_label([TRAIN])
    test_counts = scan.count_by_label([TEST])
    label_names = sorted(train_counts, key=label_order)
    unknown_labels = sorted(set(test_counts).difference(train_counts), key=label_order)

    new_numbers = np.zeros(len(scan.label_numbers), dtype=np.uint16)
    for new_number, label in enumerate(label_names + unknown_labels):
        new_numbers[scan.label_numbers[label]] = new_number
    labels = new_numbers[np.asarray(scan.labels)]
    return label_names, unknown_labels, labels


# -----------------------------------------------------------------------------
# what a person should know of the raw files


def describe_files(scan, recipe):
    """
    The part of report.json that say_findings prints.

    {split with a file of its own: {'notes': sentences, 'rows': ..., 'rejected': ...}}; the rest is
    that of Rejections.summary.
    """
    train_counts = scan.count_by_label([TRAIN])
    test_counts = scan.count_by_label([TEST])
    files = {}
    for split_name, rejections in scan.rejections.items():
        split_numbers = [SPLIT_WORDS[split_name]]
        if recipe['split_column']:
            split_numbers = [TRAIN, VAL, TEST]
        summary = rejections.summary(scan.count_by_label(split_numbers))
        files[split_name] = {'notes': list(scan.notes[split_name])} | summary

    if recipe.get('labelled', True):
        files['train']['notes'] += note_labels(scan, train_counts, test_counts, recipe)
    known_labels = set(test_counts) & set(train_counts)  # if it has none, check_scan stops
    if known_labels and len(known_labels) < len(test_counts):
        test_file = files.get('test', files['train'])
        test_file['notes'].append(note_unknown_labels(train_counts, test_counts))
    return files


def note_labels(scan, train_counts, test_counts, recipe):
    """Sentences on the labels of the training rows."""
    label_column = recipe['columns'][1]
    notes = []
    n_train = sum(train_counts.values())
    if len(train_counts) > max(n_train / 2, 2):
        # perhaps a column such as an id was taken for the label
        notes.append(
            f'{len(train_counts)} labels in {n_train} rows; is --label_column={label_column} right?'
        )
    sorted_counts = {label: train_counts[label] for label in sorted(train_counts, key=label_order)}
    notes += describe_labels(sorted_counts, find_binary_columns(scan), label_column)

    all_labels = train_counts | test_counts
    for label, name in recipe['label_names'].items():
        if name not in all_labels:
            notes.append(f'label_names calls the label {label} {name}, but no row has this label')
    return notes


def find_binary_columns(scan):
    """The names of the columns, other than the label's, that hold nothing but 0 and 1."""
    binary_hashes = {hash(text) for text in BINARY_TEXTS}
    columns = []
    for column, counts in scan.column_counts.items():
        value_hashes = {value_hash for value_hash, _ in counts}
        if value_hashes <= binary_hashes:
            columns.append(column)
    return columns


def note_unknown_labels(train_counts, test_counts):
    """'10 of 20 test rows have labels that training does not know (mixed 10); they count ...'"""
    unknown_counts = Counter(test_counts)
    for label in train_counts:
        del unknown_counts[label]
    labels = shorten([f'{label[:40]} {n}' for label, n in unknown_counts.most_common()])
    return (
        f'{unknown_counts.total()} of {sum(test_counts.values())} test rows have labels that '
        f'training does not know ({labels}); they count as wrong answers'
    )


def say_findings(files, paths, rejected_path, max_rejected):
    """
    Prints what is odd about the raw files, a line each.

    files is what describe_files returns. ValueError if too many rows of a file cannot be used.
    """
    error = ''
    for split_name, file in files.items():
        path = paths[split_name]
        lines = [f'{path}: {note}' for note in file['notes']]
        if has_too_many(file, max_rejected) and not error:
            rejected = describe_rejected(path, file, rejected_path)
            error = f'{rejected}; {describe_remedy(file)}'
        elif file['rejected'] > 0:
            lines.append(describe_rejected(path, file, rejected_path))
        for line in lines:
            say(line)
    if error:
        raise ValueError(error)


def say(line):
    """Prints one line on stderr; under torchrun only the first process does."""
    if os.getenv('RANK', '0') == '0':
        print_error(' '.join(line.splitlines()))  # a label may have several lines


def check_scan(scan, paths, recipe):
    """Raises ValueError if the files hold nothing to learn from, or nothing to test on."""
    train_counts = scan.count_by_label([TRAIN])
    check_training_rows(paths['train'], train_counts, recipe)
    test_counts = scan.count_by_label([TEST])
    counts = {'val': scan.count_by_label([VAL]), 'test': test_counts}
    for split_name, path in paths.items():
        if split_name != 'train' and not counts[split_name]:
            raise ValueError(f'{path}: none of its rows can be used; correct this file')
    if test_counts and set(test_counts).isdisjoint(train_counts):
        path = paths.get('test', paths['train'])
        raise ValueError(
            f'{path}: none of the {sum(test_counts.values())} test rows has a label that training '
            f'knows: they have {shorten(list(test_counts))}, and training has '
            f'{shorten(list(train_counts))}; rename labels with --label_names, or correct the file'
        )
    if scan.n_emptied == len(scan.labels):
        raise ValueError(
            f'{paths["train"]}: cleaning leaves nothing of any text; '
            f'is --speakers={recipe["speakers"]} right?'
        )


def check_training_rows(path, train_counts, recipe):
    """ValueError for a training file without training rows, or without two labels if it has any."""
    text_column, label_column = recipe['columns']
    n_train = sum(train_counts.values())
    if recipe.get('labelled', True):
        if len(train_counts) >= 2:
            return
        what = (
            f'{path}: at least two labels are needed, and its {n_train} usable training rows have '
            f'{len(train_counts)}'
        )
        remedy = f'are --text_column={text_column} and --label_column={label_column} right?'
    else:
        if n_train > 0:
            return
        what = f'{path} has no training row that can be used'
        remedy = f'is --text_column={text_column} right?'
    if recipe['split_column'] and n_train == 0:
        remedy = f'is --split_column={recipe["split_column"]} right?'
    raise ValueError(f'{what}; {remedy}')
