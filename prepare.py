"""
From a raw file to the memmaps that training reads, and a report on the data:
rows -> clean text -> splits -> token ids -> memmaps.

train.py calls prepare() by itself. To look at a data set before training on it:
$ python prepare.py --dataset=mine.csv --text_column=body --label_column=mood --tokenizer=gpt2

The folder data/<dataset>/<tokenizer>-<8 hex digits of the recipe>/ then holds four files of each
split (nanosentiment/memmaps.py), meta.json, tokenizer_state.json, report.json and rejected.csv.
Rows are streamed: memory holds a few numbers of each and no texts, except for data sets like SST-2
whose rows are phrases of other rows.
"""

import csv
import hashlib
import itertools
import json
import os
import re
import sys
import tempfile
from array import array
from collections import Counter, defaultdict

import numpy as np

from configurator import configure, stop
from nanosentiment.cleaning import STEPS, clean_or_keep
from nanosentiment.datasets import DATA_DIR, DATASETS, find_raw
from nanosentiment.files import checksum, write_json
from nanosentiment.memmaps import (
    DTYPES,
    MAX_LABELS,
    MAX_VOCAB_SIZE,
    TEXTS_AT_A_TIME,
    Split,
    read_meta,
    write_split,
)
from nanosentiment.metrics import describe_column
from nanosentiment.splitting import (
    TEST,
    TRAIN,
    VAL,
    assign_splits,
    count_repeats,
    keep_phrases_together,
)
from nanosentiment.tables import read_rows
from nanosentiment.tokenizer import get_tokenizer

# -----------------------------------------------------------------------------
# data
dataset = 'customer_service'  # a name in datasets.py, or the path of a .csv, .tsv or .jsonl file
text_column = ''  # '' is the data set's own
label_column = ''  # likewise
test_file = ''  # a file with the same columns; '' is the data set's own, if it has one
data_dir = ''  # where prepared data goes; '' is the data/ folder beside this file
strict = False  # True: rows that cannot be used are an error; False: they go to rejected.csv
# text
# 'auto' is bpe2048; train.py replaces it by the tokenizer of the checkpoint that it fine-tunes
tokenizer = 'auto'  # or bpe<N>, for short texts bpe<N>-prefix; gpt2; a tokenizer.json
lowercase = True
strip_brackets = True  # removes ( ) [ ] { } but not what they enclose
strip_html = True  # removes tags, and replaces entities by what they stand for
speakers = 'all'  # of dialogues with "Name:" at line starts: 'all', or e.g. 'customer' alone
# split
val_fraction = 0.1  # of each label, taken from the training file
test_fraction = 0.1  # likewise, if there is no test file
split_seed = 0  # another seed draws other validation rows
folds = 0  # number of folds; train.py runs them all, prepare.py alone does nothing without fold
fold = 0  # which of them is the test split, from 1
# length
block_size = 256  # in tokens; training cuts longer texts, while all that is prepared is uncut
keep = 'last'  # read by train.py: which end of a longer text stays, 'first', 'last' or 'both'
# -----------------------------------------------------------------------------

# what --help shows first
FIRST = ('dataset', 'text_column', 'label_column', 'test_file', 'tokenizer', 'block_size')

SPLIT_NAMES = {TRAIN: 'train', VAL: 'val', TEST: 'test'}
SPLIT_SETTINGS = ('val_fraction', 'test_fraction', 'split_seed')
BPE_MAX_BYTES = 10_000_000  # enough to learn a vocabulary from
# of a column's values and the labels; a column with so many is no category for describe_column
MAX_COMBINATIONS = 1000


def prepare(settings):
    """
    Settings (a dict of those above; folds and fold may be missing) -> the prepared folder.

    What has been prepared with the same recipe is used again. Raises ValueError for what the user
    can correct, and download.Unreachable.
    """
    settings = {'folds': 0, 'fold': 0} | settings
    check_settings(settings)
    tokenizer_name = settings['tokenizer']
    if tokenizer_name == 'auto':
        tokenizer_name = 'bpe2048'
    tokenizer = get_tokenizer(tokenizer_name, [])  # bpe<N> has learned nothing yet
    if tokenizer.n_vocab > MAX_VOCAB_SIZE:
        raise ValueError(
            f'{tokenizer_name} has {tokenizer.n_vocab:,} tokens; '
            f'choose a tokenizer of at most {MAX_VOCAB_SIZE:,}'
        )

    data_dir = settings['data_dir'] or DATA_DIR
    paths = find_raw(settings['dataset'], data_dir, settings['test_file'])
    if settings['fold']:
        paths = {'train': paths['train']}  # the test split is a part of it
    recipe = make_recipe(settings, tokenizer, paths)
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    dataset_name, _ = os.path.splitext(os.path.basename(settings['dataset']))
    parent = os.path.join(data_dir, dataset_name)
    folder = os.path.join(parent, f'{tokenizer.name}-{digest[:8]}')

    # Everything is written to a temporary folder and then renamed, so that a folder with a
    # meta.json is complete, whatever interrupts this process.
    if not os.path.exists(f'{folder}/meta.json'):
        print(f'preparing {settings["dataset"]} in {folder}', file=sys.stderr)
        os.makedirs(parent, exist_ok=True)
        # Windows cannot delete a file that is still mapped into memory, as ids is while an error is
        # on its way out of build(). The user must see that error and not the one of the deletion.
        with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as temp:
            new_folder = f'{temp}/new'
            os.mkdir(new_folder)
            build(temp, new_folder, dataset_name, paths, recipe, tokenizer)
            put_in_place(new_folder, folder)

    if settings['strict']:
        n_rejected = read_meta(folder, 'report.json')['rejected']
        if n_rejected:
            raise ValueError(
                f'{n_rejected} rows cannot be used, see {folder}/rejected.csv; '
                'correct them, or leave out --strict'
            )
    return folder


def put_in_place(new_folder, folder):
    """Renames a complete folder, unless another process with the same recipe was faster."""
    if os.path.exists(f'{folder}/meta.json'):
        return
    try:
        os.rename(new_folder, folder)
    except OSError as error:
        # the other process may also have come in between
        if not os.path.exists(f'{folder}/meta.json'):
            raise ValueError(
                f'{folder} is in the way and not complete ({error.strerror}); '
                f'delete {folder} and prepare again'
            ) from None


def build(temp, folder, dataset_name, paths, recipe, tokenizer):
    """Fills an empty folder; temp is for files that are needed only meanwhile."""
    scan = scan_files(temp, folder, paths, recipe)
    check_scan(scan, paths, recipe)
    label_names = sorted(scan.label_numbers, key=label_order)
    labels = renumber(scan, label_names)

    split_of_row = split_rows(temp, scan, labels, recipe)
    if tokenizer.is_learned:
        tokenizer = learn_tokenizer(temp, tokenizer.name, split_of_row)
    lengths = encode_texts(temp, tokenizer)

    ids = np.memmap(f'{temp}/ids', dtype=DTYPES['tok'], mode='r')
    meta = {
        'dataset': dataset_name,
        'labels': label_names,
        'tokenizer': describe_tokenizer(tokenizer),
        'recipe': recipe,
        'rows': {},
        'tokens': {},
    }
    # only the splits that have rows: with val_fraction 0 there is no val
    for split_number in np.unique(split_of_row):
        split_name = SPLIT_NAMES[split_number]
        is_in_split = split_of_row == split_number
        write_split(
            folder,
            split_name,
            is_in_split=is_in_split,
            ids=ids,
            lengths=lengths,
            labels=labels,
            rows=np.asarray(scan.row_numbers),
        )
        meta['rows'][split_name] = int(is_in_split.sum())
        meta['tokens'][split_name] = int(lengths[is_in_split].sum())

    train_hashes = np.asarray(scan.hashes)[: scan.n_train]
    test_hashes = np.asarray(scan.hashes)[scan.n_train :]
    n_repeated, n_conflicts = count_repeats(train_hashes, labels[: scan.n_train])
    label_counts = count_labels(labels, split_of_row, label_names)
    length_percentiles = measure_lengths(lengths, labels, split_of_row, label_names)
    report = meta | {
        'rejected': scan.n_rejected.total(),
        'emptied': scan.n_emptied,
        'repeated_rows': n_repeated,
        'labels': label_counts,
        'texts_under_several_labels': n_conflicts,
        'test_texts_in_train': int(np.isin(test_hashes, train_hashes).sum()),
        'lengths': length_percentiles,
        'columns': describe_columns(scan),
    }
    # The first training text, decoded from its ids, for people to see what cleaning and tokenizer
    # make of a text. The model sees no more than block_size tokens of it.
    first = int(np.argmax(split_of_row == TRAIN))
    begin = lengths[:first].sum()
    first_ids = ids[begin : begin + lengths[first]]
    report['example'] = {
        'row': scan.row_numbers[first],
        'label': label_names[labels[first]],
        'text': tokenizer.decode(first_ids),
    }

    write_json(f'{folder}/tokenizer_state.json', tokenizer.state())
    write_json(f'{folder}/report.json', report)
    write_json(f'{folder}/meta.json', meta)


# -----------------------------------------------------------------------------
# the settings


def check_settings(settings):
    """Raises ValueError for settings with which nothing can be prepared."""
    name = settings['dataset']
    extension = os.path.splitext(name)[1].lower()
    if name not in DATASETS and extension not in ('.csv', '.tsv', '.jsonl'):
        known = ', '.join(DATASETS)
        raise ValueError(
            f'dataset {name!r} is neither one of {known} nor a .csv, .tsv or .jsonl file'
        )

    val_fraction = settings['val_fraction']
    test_fraction = settings['test_fraction']
    are_fractions = val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1
    if not are_fractions:
        raise ValueError(
            f'val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train '
            'on; set both to 0 or more, and their sum below 1'
        )

    folds = settings['folds']
    fold = settings['fold']
    if folds == 1 or not 0 <= fold <= folds:
        raise ValueError(
            f'fold {fold} of {folds} folds cannot be made; '
            'set --folds to 2 or more, and --fold to one of 1 to folds'
        )


def make_recipe(settings, tokenizer, paths):
    """All settings that decide the bytes of a prepared folder; its name holds their checksum."""
    known = DATASETS.get(settings['dataset'], {})
    text_column, label_column = known.get('columns', ('', ''))
    recipe = {
        # Raise this whenever cleaning, splitting, tokenizing or the files change. The checksum is
        # of settings only, so otherwise the data of older code would be used again.
        'format': 2,
        'raw': {},
        'names': known.get('label_names', {}),
        'tokenizer': [tokenizer.name, tokenizer.sha256],
        'columns': [
            settings['text_column'] or text_column,
            settings['label_column'] or label_column,
        ],
    }
    for name in (*STEPS, *SPLIT_SETTINGS):
        recipe[name] = settings[name]
    if settings['fold'] or 'test' in paths:
        recipe['test_fraction'] = 0  # does not matter then
    if settings['fold']:
        recipe['folds'] = settings['folds']
        recipe['fold'] = settings['fold']
    if known.get('rows_are_phrases'):
        recipe['parts'] = True

    for split_name, path in paths.items():
        recipe['raw'][split_name] = checksum(path)
    return recipe


# -----------------------------------------------------------------------------
# raw files -> clean texts


class Scan:
    """What one pass over the raw files finds out: a few numbers of each usable row, no texts."""

    def __init__(self):
        # of each usable row, those of the training file first
        self.labels = array('i')  # numbers in order of first appearance, see label_numbers
        self.row_numbers = array('q')  # where it stands in its file, from 0
        self.hashes = array('q')  # of the clean text, alike for equal texts
        # of all of them
        self.label_numbers = {}
        self.n_train = 0
        self.n_emptied = 0  # texts of which cleaning would leave nothing
        # of the columns of the training file
        self.n_present = Counter()  # {column: rows with a value}
        self.column_counts = defaultdict(Counter)  # {column: {(hash of the value, label): rows}}
        # of the rows that cannot be used
        self.n_rejected = Counter()  # {split: rows}
        self.first_rejected = {}  # {split: (line number, reason)}

    def add_text(self, text, label, row_number):
        self.labels.append(self.label_numbers.setdefault(label, len(self.label_numbers)))
        self.row_numbers.append(row_number)
        # Python's hash of a text differs between processes. This is safe, because it only matters
        # which hashes are equal, and the shuffle depends on row numbers and split_seed.
        self.hashes.append(hash(text))

    def add_columns(self, row, label, label_column):
        """Counts the values of a training row, for metrics.describe_column."""
        for column, value in row.items():
            if column == label_column:
                continue
            if value:
                self.n_present[column] += 1
            counts = self.column_counts[column]
            # no category if there are more; what would be counted would only grow
            if len(counts) < MAX_COMBINATIONS:
                counts[hash(value), label] += 1

    def add_rejected(self, split_name, line_number, reason):
        self.n_rejected[split_name] += 1
        if split_name not in self.first_rejected:
            self.first_rejected[split_name] = (line_number, reason)

    def describe_rejected(self, split_name):
        """' (rejected: 3, the first in line 7: no text)', or '' if all rows can be used"""
        n_rejected = self.n_rejected[split_name]
        if n_rejected == 0:
            return ''
        line_number, reason = self.first_rejected[split_name]
        return f' (rejected: {n_rejected}, the first in line {line_number}: {reason})'


def scan_files(temp, folder, paths, recipe):
    """Raw files -> Scan; writes temp/texts, a clean text per line, and rejected.csv."""
    text_column, label_column = recipe['columns']
    scan = Scan()
    with (
        # '\n' alone ends a line, on Windows too, for a text may hold '\r'
        open(f'{temp}/texts', 'w', encoding='utf-8', newline='\n') as texts_file,
        open(f'{folder}/rejected.csv', 'w', newline='', encoding='utf-8') as rejected_file,
    ):
        rejected = csv.writer(rejected_file)
        rejected.writerow(('file', 'line', 'reason'))
        # the training file comes first, because it decides which labels there are
        for split_name, path in paths.items():
            for row_number, (line_number, row, reason) in enumerate(read_rows(path)):
                if not reason:
                    check_columns(path, row, recipe['columns'])
                    raw_text = row.get(text_column, '').strip()
                    label = row.get(label_column, '').strip()
                    label = recipe['names'].get(label, label)
                    reason = find_reason(split_name, raw_text, label, scan.label_numbers)
                if reason:
                    rejected.writerow((path, line_number, reason))
                    scan.add_rejected(split_name, line_number, reason)
                    continue

                text, is_emptied = clean_or_keep(raw_text, recipe)
                if is_emptied:
                    scan.n_emptied += 1
                scan.add_text(text, label, row_number)
                if split_name == 'train':
                    scan.n_train += 1
                    scan.add_columns(row, label, label_column)
                # no text contains NUL, so it can stand for a line end
                texts_file.write(text.replace('\n', '\0') + '\n')
    return scan


def check_columns(path, row, columns):
    """Raises ValueError if a table lacks the text or label column; rows of a .jsonl may differ."""
    if path.lower().endswith('.jsonl'):
        return
    for column, setting in zip(columns, ('text_column', 'label_column')):
        if column not in row:
            known = ', '.join(row)
            raise ValueError(
                f'{path}: there is no column {column!r}; set --{setting} to one of {known}'
            )


def find_reason(split_name, text, label, known_labels):
    """Why a well-formed row cannot be used, or ''."""
    if not text:
        return 'no text'
    if not label:
        return 'no label'
    if split_name == 'test' and label not in known_labels:
        return f'label {label[:40]!r} is unknown to the training file'
    return ''


def check_scan(scan, paths, recipe):
    """Raises ValueError if the files hold nothing to learn from."""
    text_column, label_column = recipe['columns']
    n_labels = len(scan.label_numbers)
    labels_and_rows = f'{paths["train"]}: {n_labels} labels in {scan.n_train} usable rows'
    if n_labels < 2:
        raise ValueError(
            f'{labels_and_rows}{scan.describe_rejected("train")}; '
            f'are --text_column={text_column} and --label_column={label_column} right?'
        )
    # with more labels than half the rows, a column such as an id was taken for the label
    max_labels = max(min(scan.n_train // 2, MAX_LABELS), 2)
    if n_labels > max_labels:
        raise ValueError(
            f'{labels_and_rows} are more than {max_labels}; is --label_column={label_column} right?'
        )

    n_texts = len(scan.labels)
    if 'test' in paths and n_texts == scan.n_train:
        raise ValueError(
            f'{paths["test"]}: none of its rows can be used{scan.describe_rejected("test")}; '
            'correct this file'
        )
    if scan.n_emptied == n_texts:
        raise ValueError(
            f'{paths["train"]}: cleaning leaves nothing of any text; '
            f'is --speakers={recipe["speakers"]} right?'
        )


def read_texts(temp):
    """Yields the clean texts."""
    with open(f'{temp}/texts', encoding='utf-8', newline='\n') as f:
        for line in f:
            yield line[:-1].replace('\0', '\n')


# -----------------------------------------------------------------------------
# labels and splits


def label_order(label):
    """The key that sorts labels: numbers first and by value, so that '2' comes before '10'."""
    if re.fullmatch(r'-?\d+(\.\d+)?', label):
        return 0, float(label), label
    return 1, 0, label


def renumber(scan, label_names):
    """The labels of a scan as numbers (n,) uint16 of their places in label_names."""
    new_numbers = np.zeros(len(label_names), dtype=np.uint16)
    for new_number, name in enumerate(label_names):
        new_numbers[scan.label_numbers[name]] = new_number
    return new_numbers[np.asarray(scan.labels)]


def split_rows(temp, scan, labels, recipe):
    """-> split_of_row (n,) uint8: TRAIN, VAL or TEST"""
    n_train = scan.n_train
    split_of_train_row = assign_splits(
        text_hashes=np.asarray(scan.hashes)[:n_train],
        labels=labels[:n_train],
        val_fraction=recipe['val_fraction'],
        test_fraction=recipe['test_fraction'],
        seed=recipe['split_seed'],
        folds=recipe.get('folds', 0),
        fold=recipe.get('fold', 0),
    )
    if 'parts' in recipe:
        texts = list(itertools.islice(read_texts(temp), n_train))
        split_of_train_row = keep_phrases_together(texts, split_of_train_row)

    # the rows of a test file follow those of the training file
    split_of_row = np.full(len(labels), TEST, dtype=np.uint8)
    split_of_row[:n_train] = split_of_train_row
    return split_of_row


# -----------------------------------------------------------------------------
# tokens


def learn_tokenizer(temp, name, split_of_row):
    """bpe<N>, learned from the training split, or from every k-th text of a large one."""
    training_texts = itertools.compress(read_texts(temp), split_of_row == TRAIN)
    k = 1 + os.path.getsize(f'{temp}/texts') // BPE_MAX_BYTES
    return get_tokenizer(name, itertools.islice(training_texts, 0, None, k))


def encode_texts(temp, tokenizer):
    """Writes temp/ids, the token ids of all texts end to end -> lengths (n,) in tokens."""
    texts = read_texts(temp)
    lengths = array('q')
    with open(f'{temp}/ids', 'wb') as f:
        while batch := list(itertools.islice(texts, TEXTS_AT_A_TIME)):
            for ids in tokenizer.encode_batch(batch):
                lengths.append(len(ids))
                f.write(np.array(ids, dtype=DTYPES['tok']).tobytes())
    return np.asarray(lengths)


# -----------------------------------------------------------------------------
# the report


def describe_tokenizer(tokenizer):
    names = ('name', 'n_vocab', 'sha256', 'n_prefix', 'n_suffix')
    return {name: getattr(tokenizer, name) for name in names}


def describe_columns(scan):
    """-> {column: what metrics.describe_column tells of it}; little of one with too many values"""
    descriptions = {}
    for column, counts in scan.column_counts.items():
        descriptions[column] = describe_column(counts)
        # counted for all rows; the counts may have stopped early, and lack absent keys of a .jsonl
        descriptions[column]['missing'] = scan.n_train - scan.n_present[column]
    return descriptions


def count_labels(labels, split_of_row, label_names):
    """-> {split: {label: number of rows}}"""
    label_counts = {}
    for split_number in np.unique(split_of_row):
        labels_of_split = labels[split_of_row == split_number]
        counts = np.bincount(labels_of_split, minlength=len(label_names))
        label_counts[SPLIT_NAMES[split_number]] = dict(zip(label_names, counts.tolist()))
    return label_counts


def measure_lengths(lengths, labels, split_of_row, label_names):
    """-> {label: 5th, 50th and 95th percentile and maximum of its training texts' lengths}"""
    length_percentiles = {}
    for label, name in enumerate(label_names):
        lengths_of_label = lengths[(split_of_row == TRAIN) & (labels == label)]
        if len(lengths_of_label) > 0:
            length_percentiles[name] = np.percentile(lengths_of_label, (5, 50, 95, 100)).tolist()
    return length_percentiles


def print_report(report):
    """The report for people: report.json, and share_truncated."""
    names = (
        'dataset',
        'rows',
        'rejected',
        'emptied',
        'repeated_rows',
        'texts_under_several_labels',
        'test_texts_in_train',
    )
    for name in names:
        print(f'{name:28} {report[name]}')

    label_counts = report['labels']
    splits = ''.join(f'{split_name:>10}' for split_name in label_counts)
    print(f'\n{"label":20}{splits}   tokens: p5   p50   p95   max')
    for label, length_percentiles in report['lengths'].items():
        n_rows = ''.join(f'{counts[label]:10,}' for counts in label_counts.values())
        n_tokens = ''.join(f'{n:6.0f}' for n in length_percentiles)
        print(f'{label[:20]:20}{n_rows}     {n_tokens}')

    print(f'\n{"column":28} missing distinct  guess       chi2  df        p  goes with the label?')
    for name, column in report['columns'].items():
        line = f'{name[:28]:28} {column["missing"]:7,} {column["distinct"] or "many":>8}'
        if 'guess' in column:
            line += f'{column["guess"]:7.1%}'
        if 'p' in column:
            answer = 'yes' if column['p'] < 0.01 else 'no'
            line += f'{column["chi2"]:11.1f} {column["df"]:3} {column["p"]:8.2g}  {answer}'
        print(line)

    # 'guess' is the share of rows whose label would be guessed right from this column's value
    # alone, as the other rows with this value have it. So it is about 0 for a column whose values
    # hardly repeat: for an id, and for the text itself. A column is suspicious if so little goes
    # wrong that it is less than 5 % of the errors of always guessing the commonest label.
    train_counts = label_counts['train'].values()
    majority_error = 1 - max(train_counts) / sum(train_counts)
    for name, column in report['columns'].items():
        if 1 - column.get('guess', 0) < 0.05 * majority_error:
            print(
                f'{name} alone tells the label: '
                'what a model learns from the text may be no more than that'
            )

    share = report['share_truncated']
    print(f'\n{share:.1%} of the training texts are longer than block_size, and cut in training')
    example = report['example']
    row_and_label = f'row {example["row"]}, label {example["label"]}'
    print(f'\nThe first training text ({row_and_label}), uncut:\n{example["text"]}')


def main():
    config = configure(globals())
    try:
        folder = prepare(config)
        report = read_meta(folder, 'report.json')
        train_lengths = Split(folder, 'train').lengths
    except (ValueError, OSError) as error:
        stop(error)

    report['tokenizer'] = report['tokenizer']['name']
    report['share_truncated'] = float((train_lengths > block_size).mean())
    print_report(report)
    names = ('dataset', 'tokenizer', 'rows', 'rejected', 'labels', 'tokens', 'share_truncated')
    summary = {name: report[name] for name in names}
    summary['folder'] = folder
    print(json.dumps(summary))


if __name__ == '__main__':
    main()
