"""
From a raw file to the memmaps that training reads, and a report on the data:
rows -> clean text -> splits -> token ids -> memmaps.

train.py calls prepare() by itself. To look at a data set before training on it:
$ python prepare.py --dataset=mine.csv --text_column=body --label_column=mood --tokenizer=gpt2
Texts without labels, to learn their language from, are prepared in the same way:
$ python prepare.py --dataset=texts.txt --labelled=False

docs/data.md says which files are read, and nanosentiment/scanning.py reads them. The folder
data/<dataset>/<tokenizer>-<8 hex digits of the recipe>/ then holds four files of each split
(nanosentiment/memmaps.py), meta.json, tokenizer_state.json, report.json and rejected.csv.
Rows are streamed: memory holds a few numbers of each and no texts, except for data sets like SST-2
whose rows are phrases of other rows.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import unicodedata
from array import array

import numpy as np

from configurator import configure, declared_settings, printable, run_script
from nanosentiment.cleaning import STEPS
from nanosentiment.datasets import DATA_DIR, DATASETS, find_raw
from nanosentiment.files import NO_ROOM, checksum, temporary_folder, to_json, write_json
from nanosentiment.labels import parse_label_names
from nanosentiment.memmaps import (
    TEXTS_AT_A_TIME,
    Split,
    check_folder,
    read_meta,
    token_dtype,
    write_meta,
    write_split,
)
from nanosentiment.metrics import describe_column
from nanosentiment.rejections import has_too_many
from nanosentiment.scanning import (
    MAX_COMBINATIONS,
    check_scan,
    describe_files,
    number_labels,
    read_texts,
    say,
    say_findings,
    scan_files,
)
from nanosentiment.splitting import (
    TEST,
    TRAIN,
    VAL,
    assign_splits,
    count_repeats,
    join_groups,
    keep_phrases_together,
)
from nanosentiment.tables import KINDS, find_extension
from nanosentiment.tokenizer import get_tokenizer

# -----------------------------------------------------------------------------
# data
dataset = 'customer_service'  # a name in datasets.py, or the path of a .csv, .tsv, .jsonl or .json
text_column = ''  # 'title,body' joins two columns; '' is the data set's own
text_pair_column = ''  # a second text in each row, e.g. an answer; for checkpoints such as BERT
label_column = ''  # '' is the data set's own
labelled = True  # False: texts alone, to learn a language from; a .txt file has one on each line
label_names = ''  # other names for labels, e.g. '0=negative,1=positive'
test_file = ''  # a file with the same columns; '' is the data set's own, if it has one
val_file = ''  # another one; '' takes validation rows from the training file
split_column = ''  # of the training file; its cells say train, validation or test
max_rejected = 0.05  # share of a file's rows that may be unusable, see rejected.csv; 0.0: none
data_dir = ''  # where prepared data goes; '' is the data/ folder beside this file
# table; what is not set is found out
delimiter = ''  # of columns: one character, or tab
encoding = ''  # such as cp1251; without it UTF-8, UTF-16 and cp1252 are told apart
header = 'auto'  # False: there is none, and columns are called 0, 1, 2, ...
# text
# 'auto' is bpe2048; train.py replaces it by the tokenizer of the checkpoint that it fine-tunes
tokenizer = 'auto'  # or bpe<N>, for short texts bpe<N>-prefix; gpt2; a tokenizer.json
lowercase = False  # True: Good is the same as good; some checkpoints' tokenizers do so anyway
strip_brackets = False  # True removes ( ) [ ] { } but neither what they enclose nor emoticons
strip_html = True  # removes tags, and replaces entities by what they stand for
speakers = 'all'  # of dialogues with "Name:" at line starts: 'all', or e.g. 'customer' alone
# split
group_column = ''  # rows with the same value here, e.g. of one customer, stay in the same split
val_fraction = 0.1  # of each label, taken from the training file
test_fraction = 0.1  # likewise, if there is no test file and texts have labels
split_seed = 0  # another seed draws other validation rows and test rows
folds = 0  # number of folds; train.py runs them all, prepare.py alone ignores it without fold
fold = 0  # which of them is the test split, from 1
# length
block_size = 256  # in tokens; training cuts longer texts, while all that is prepared is uncut
keep = 'last'  # read by train.py: which end of a longer text stays, 'first', 'last' or 'both'
# -----------------------------------------------------------------------------

# what --help shows first
FIRST = ('dataset', 'text_column', 'label_column', 'test_file', 'tokenizer', 'block_size')

SPLIT_NAMES = {TRAIN: 'train', VAL: 'val', TEST: 'test'}
SPLIT_SETTINGS = ('val_fraction', 'test_fraction', 'split_seed')
TABLE_SETTINGS = ('delimiter', 'encoding', 'header')
BPE_MAX_BYTES = 10_000_000  # enough to learn a vocabulary from
PAIRS_NEED = (
    'text_pair_column needs a checkpoint that was trained with pairs; '
    'set --init_from=minilm or bert-base-uncased (for prepare.py alone --tokenizer=<its folder>)'
)
ALL_TEXTS = 'all texts'  # in the place of labels where there are none
MAX_NAME_LENGTH = 60  # of a folder that is named after a file, in characters of up to 4 bytes


def prepare(settings, tokenizer=None):
    """
    Settings (a dict of those above; what is missing has its default) -> the prepared folder.

    A tokenizer that is given takes the place of the setting, and learns nothing: a run that goes on
    from another one brings that run's.

    What has been prepared with the same recipe is used again. stderr says what a person should know
    of the files, each time. Raises ValueError for what the user can correct, and
    download.Unreachable.
    """
    settings = declared_settings(globals()) | settings
    check_settings(settings)
    if tokenizer is None:
        tokenizer_name = settings['tokenizer']
        if tokenizer_name == 'auto':
            tokenizer_name = 'bpe2048'
        tokenizer = get_tokenizer(tokenizer_name, [])  # bpe<N> is empty until build() knows texts
    elif tokenizer.is_empty:
        raise ValueError(
            f'the run to go on from had too few texts for {tokenizer.name} to learn a token; '
            'go on from another run, or train from the start with --init_from=scratch'
        )

    if settings['text_pair_column'] and not tokenizer.pair_ids:
        raise ValueError(PAIRS_NEED)

    data_dir = os.path.expanduser(settings['data_dir'] or DATA_DIR)
    paths = find_raw(settings['dataset'], data_dir, settings['test_file'], settings['val_file'])
    if settings['fold']:
        paths = {'train': paths['train']}  # the test split is a part of it
    recipe = make_recipe(settings, tokenizer, paths)
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    dataset_name = name_dataset(settings['dataset'])
    parent = os.path.join(data_dir, dataset_name)
    folder = os.path.join(parent, f'{tokenizer.name}-{digest[:8]}')
    max_rejected = settings['max_rejected']

    if os.path.exists(f'{folder}/meta.json'):
        if os.getenv('RANK', '0') == '0':  # under torchrun once is enough
            check_folder(folder)
        report = read_meta(folder, 'report.json')
        say_findings(report['files'], paths, f'{folder}/rejected.csv', max_rejected)
        return folder

    say(f'preparing {settings["dataset"]} in {folder}')
    # Everything is written to a temporary folder and then renamed, so that a folder with a
    # meta.json is complete, whatever interrupts this process.
    with working_folder(parent) as temp:
        new_folder = f'{temp}/new'
        os.mkdir(new_folder)
        scan = scan_files(temp, new_folder, paths, recipe)
        files = describe_files(scan, recipe)
        rejected_path = f'{folder}/rejected.csv'
        if any(has_too_many(file, max_rejected) for file in files.values()):
            # the list stays, although nothing else does
            rejected_path = f'{parent}/rejected.csv'
            shutil.copy(f'{new_folder}/rejected.csv', rejected_path)
        say_findings(files, paths, rejected_path, max_rejected)
        check_scan(scan, paths, recipe)
        build(temp, new_folder, dataset_name, scan, files, recipe, tokenizer)
        put_in_place(new_folder, folder)
    return folder


@contextlib.contextmanager
def working_folder(parent):
    """A temporary folder inside parent. ValueError if that is read-only, or the disk is full."""
    try:
        with temporary_folder(parent, 'preparing-') as folder:
            yield folder
    except OSError as error:
        # numpy tells only how much it could write, and the system does not name the file
        is_own = str(error.filename).startswith(parent)
        if not is_own and (error.filename is not None or error.errno not in (None, *NO_ROOM)):
            raise
        reason = error.strerror or error
        raise ValueError(
            f'{parent} cannot be written ({reason}); '
            'make room, or set --data_dir to a folder that you can write'
        ) from None


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


def build(temp, folder, dataset_name, scan, files, recipe, tokenizer):
    """Fills an empty folder; temp is for files that are needed only meanwhile."""
    label_names, unknown_labels, labels = number_labels(scan)
    split_of_row = split_rows(temp, scan, labels, recipe)
    if tokenizer.is_empty:
        tokenizer = learn_tokenizer(temp, tokenizer.name, split_of_row)
    lengths = encode_texts(temp, tokenizer)

    ids = np.memmap(f'{temp}/ids', dtype=token_dtype(tokenizer.n_vocab), mode='r')
    meta = {
        'dataset': dataset_name,
        'labels': label_names,
        'unknown_labels': unknown_labels,
        'tokenizer': describe_tokenizer(tokenizer, recipe),
        'recipe': recipe,
        'rows': {},
        'tokens': {},
    }
    # only the splits that have rows: with val_fraction 0 there is no val
    for split_name, is_in_split in masks_of_splits(split_of_row):
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

    test_counts = scan.count_by_label([TEST])
    report = meta | {
        'files': files,
        'rejected': sum(file['rejected'] for file in files.values()),
        'emptied': scan.n_emptied,
        'cleaned': scan.n_cleaned,
        **count_repeated_texts(scan, labels),
        'labels': count_labels(labels, split_of_row, label_names, unknown_labels),
        'unknown_labels': {label: test_counts[label] for label in unknown_labels},
        'lengths': measure_lengths(lengths, labels, split_of_row, label_names),
        'columns': describe_columns(scan),
        'cleaning_example': scan.cleaning_example,
    }
    # The first training text, decoded from its ids, for people to see what cleaning and tokenizer
    # make of a text. The model sees no more than block_size tokens of it at once.
    first = int(np.argmax(split_of_row == TRAIN))
    begin = lengths[:first].sum()
    first_ids = ids[begin : begin + lengths[first]]
    label = label_names[labels[first]] if label_names else ''
    report['example'] = {
        'row': scan.row_numbers[first],
        'label': label,
        'text': tokenizer.decode(first_ids),
    }

    write_json(f'{folder}/tokenizer_state.json', tokenizer.state())
    write_json(f'{folder}/report.json', report)
    write_meta(folder, meta)


def masks_of_splits(split_of_row):
    """-> [(name of a split, which rows (n,) bool are in it), ...] of the splits that have rows"""
    masks = []
    for split_number, name in SPLIT_NAMES.items():
        is_in_split = split_of_row == split_number
        if is_in_split.any():
            masks.append((name, is_in_split))
    return masks


# -----------------------------------------------------------------------------
# the settings


def check_settings(settings):
    """Raises ValueError for settings with which nothing can be prepared."""
    dataset = settings['dataset']
    is_word = os.path.basename(dataset) == dataset and not find_extension(dataset)
    if dataset not in DATASETS and is_word and not os.path.exists(dataset):
        known = ', '.join(DATASETS)
        raise ValueError(
            f'dataset {dataset!r} is neither one of {known} nor a file in {os.getcwd()}; '
            'correct the name, or give the path of a .csv, .tsv, .jsonl or .json file'
        )

    val_fraction = settings['val_fraction']
    test_fraction = settings['test_fraction']
    are_fractions = val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1
    if not are_fractions:
        raise ValueError(
            f'val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train '
            'on; set both to 0 or more, and their sum below 1'
        )
    max_rejected = settings['max_rejected']
    if not 0 <= max_rejected <= 1:
        raise ValueError(
            f'max_rejected {max_rejected} is no share of rows; set it between 0 and 1: 0.05 is 5 %'
        )

    folds = settings['folds']
    fold = settings['fold']
    if folds == 1 or not 0 <= fold <= folds:
        raise ValueError(
            f'fold {fold} of {folds} folds cannot be made; '
            'set --folds to 2 or more, and --fold to one of 1 to folds'
        )
    check_sources(settings)


def check_sources(settings):
    """Raises ValueError if two settings each say where the rows of a split come from."""
    if settings['val_file'] and settings['folds']:
        raise ValueError(
            'val_file and folds: each fold takes its own validation rows; set only one of the two'
        )
    if not settings['split_column']:
        return
    for name in ('test_file', 'val_file', 'folds', 'group_column'):
        if settings[name]:
            raise ValueError(
                f'split_column and {name} both say in which split a row is; set only one of the two'
            )
    if settings['dataset'] in DATASETS:
        raise ValueError(
            f'split_column is for files of your own, and {settings["dataset"]} has its test rows '
            'in a file; leave out --split_column'
        )


def make_recipe(settings, tokenizer, paths):
    """All settings that decide the bytes of a prepared folder; its name holds their checksum."""
    known = DATASETS.get(settings['dataset'], {})
    text_column, label_column = known.get('columns', ('', ''))
    label_names = parse_label_names(settings['label_names'])
    recipe = {
        # Raise this whenever cleaning, splitting, tokenizing or the files change. The checksum is
        # of settings only, so otherwise the data of older code would be used again.
        'format': 3,
        'raw': {},
        'kinds': {},
        'columns': [
            settings['text_column'] or text_column,
            settings['label_column'] or label_column,
        ],
        'label_names': label_names or known.get('label_names', {}),
        'table': {name: settings[name] for name in TABLE_SETTINGS},
        'split_column': settings['split_column'],
        'tokenizer': [tokenizer.name, tokenizer.sha256],
    }
    for name in (*STEPS, *SPLIT_SETTINGS):
        recipe[name] = settings[name]
    if not settings['labelled']:
        recipe['labelled'] = False
        recipe['columns'][1] = ''
        recipe['label_names'] = {}
        recipe['test_fraction'] = 0  # no labels to test; a test file still makes a test split
    if settings['fold'] or 'test' in paths:
        recipe['test_fraction'] = 0  # does not matter then
    if 'val' in paths:
        recipe['val_fraction'] = 0
    if settings['fold']:
        recipe['folds'] = settings['folds']
        recipe['fold'] = settings['fold']
    if known.get('rows_are_phrases'):
        recipe['parts'] = True
    if settings['group_column']:
        recipe['group_column'] = settings['group_column']
    if settings['text_pair_column']:
        recipe['text_pair_column'] = settings['text_pair_column']

    for split_name, path in paths.items():
        recipe['raw'][split_name] = checksum(path)
        recipe['kinds'][split_name] = find_extension(path)
    return recipe


def name_dataset(path):
    """
    What the folder of a data set is called: '~/My data.v2.csv.gz' -> 'My_data.v2'.

    Whatever a file is called, the name is neither hidden nor read as a flag, and not too long for a
    file system. Files that share a name do not mix, because a prepared folder has a checksum.
    """
    name = os.path.basename(path)
    if name.lower().endswith('.gz'):
        name = name[:-3]
    root, extension = os.path.splitext(name)
    if extension.lower() in KINDS:
        name = root
    safe_name = ''
    for character in name:
        is_letter_or_digit = unicodedata.category(character)[0] in 'LMN'  # M: marks of letters
        if is_letter_or_digit or character in '.-+_':
            safe_name += character
        else:
            safe_name += '_'
    safe_name = safe_name.lstrip('.-')[:MAX_NAME_LENGTH].rstrip('.')
    return safe_name or 'data'


# -----------------------------------------------------------------------------
# splits


def split_rows(temp, scan, labels, recipe):
    """-> split_of_row (n,) uint8: TRAIN, VAL, TEST or LEFT_OUT"""
    split_of_row = np.array(scan.splits)
    is_train = split_of_row == TRAIN
    # rows that are validation or test rows already need not be taken from the training rows
    val_fraction = recipe['val_fraction']
    if VAL in split_of_row:
        val_fraction = 0
    test_fraction = recipe['test_fraction']
    if TEST in split_of_row:
        test_fraction = 0
    text_hashes = np.asarray(scan.hashes)[is_train]
    if scan.groups:
        text_hashes = join_groups(text_hashes, np.asarray(scan.groups))
    split_of_train_row = assign_splits(
        text_hashes=text_hashes,
        labels=labels[is_train],
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=recipe['split_seed'],
        folds=recipe.get('folds', 0),
        fold=recipe.get('fold', 0),
    )
    if 'parts' in recipe:
        texts = list(itertools.compress(read_texts(temp), is_train))
        split_of_train_row = keep_phrases_together(texts, split_of_train_row)
    split_of_row[is_train] = split_of_train_row
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
    dtype = token_dtype(tokenizer.n_vocab)
    with open(f'{temp}/ids', 'wb') as f:
        while batch := list(itertools.islice(texts, TEXTS_AT_A_TIME)):
            for ids in tokenizer.encode_batch(batch):
                lengths.append(len(ids))
                f.write(np.array(ids, dtype=dtype).tobytes())
    return np.asarray(lengths)


# -----------------------------------------------------------------------------
# the report


def describe_tokenizer(tokenizer, recipe):
    """What meta.json holds of a tokenizer; pair_ids and pair_sep only if the texts are pairs."""
    names = ['name', 'n_vocab', 'sha256', 'n_prefix', 'n_suffix']
    if 'text_pair_column' in recipe:
        names += ['pair_ids', 'pair_sep']
    return {name: getattr(tokenizer, name) for name in names}


def count_repeated_texts(scan, labels):
    """-> how many texts repeat each other, within the training file and between files"""
    hashes = np.asarray(scan.hashes)
    splits = np.asarray(scan.splits)
    train_hashes = hashes[splits == TRAIN]
    n_repeated, n_conflicts = count_repeats(train_hashes, labels[splits == TRAIN])
    return {
        'repeated_rows': n_repeated,
        'texts_under_several_labels': n_conflicts,
        'val_texts_in_train': int(np.isin(hashes[splits == VAL], train_hashes).sum()),
        'test_texts_in_train': int(np.isin(hashes[splits == TEST], train_hashes).sum()),
    }


def describe_columns(scan):
    """
    -> {column: what metrics.describe_column tells of it}; little of one with too many values, or if
    there are no labels to go with.
    """
    descriptions = {}
    n_train = sum(scan.count_by_label([TRAIN]).values())
    for column, counts in scan.column_counts.items():
        if scan.is_labelled:
            descriptions[column] = describe_column(counts)
        else:
            is_complete = len(counts) < MAX_COMBINATIONS
            descriptions[column] = {'distinct': len(counts) if is_complete else None}
        # counted for all rows; the counts may have stopped early, and lack absent keys of JSON
        descriptions[column]['missing'] = n_train - scan.n_present[column]
    return descriptions


def count_labels(labels, split_of_row, label_names, unknown_labels):
    """-> {split: {label: number of rows}}; unknown labels are in the test split only"""
    label_counts = {}
    for split_name, is_in_split in masks_of_splits(split_of_row):
        names = label_names
        if split_name == 'test':
            names = label_names + unknown_labels
        counts = np.bincount(labels[is_in_split], minlength=len(names))
        label_counts[split_name] = dict(zip(names, counts.tolist()))
    return label_counts


def measure_lengths(lengths, labels, split_of_row, label_names):
    """
    -> {label: 5th, 50th and 95th percentile and maximum of its training texts' lengths}

    Without labels they are those of ALL_TEXTS.
    """
    label_names = label_names or [ALL_TEXTS]
    is_train = split_of_row == TRAIN
    train_lengths = lengths[is_train]
    train_labels = labels[is_train]
    length_percentiles = {}
    for label, name in enumerate(label_names):
        lengths_of_label = train_lengths[train_labels == label]
        if len(lengths_of_label) > 0:
            length_percentiles[name] = np.percentile(lengths_of_label, (5, 50, 95, 100)).tolist()
    return length_percentiles


def print_report(report):
    """The report for people: report.json, and share_truncated."""
    is_labelled = report['recipe'].get('labelled', True)
    names = (
        'dataset',
        'rows',
        'rejected',
        'cleaned',
        'emptied',
        'repeated_rows',
        'texts_under_several_labels',
        'val_texts_in_train',
        'test_texts_in_train',
    )
    for name in names:
        print(f'{name:28} {report[name]}')
    print_labels(report)
    print_columns(report)

    cleaning = report['cleaning_example']
    if cleaning:
        n = report['cleaned']
        print(f'\nCleaning changes the words of {n:,} texts, first of row {cleaning["row"]}:')
        print(f'  before: {printable(cleaning["before"])}')
        print(f'  after:  {printable(cleaning["after"])}')

    what_happens = 'cut in training'
    if not is_labelled:
        what_happens = 'go on in the next block'
    share = report['share_truncated']
    print(f'\n{share:.1%} of the training texts are longer than block_size, and {what_happens}')
    example = report['example']
    row_and_label = f'row {example["row"]}'
    if is_labelled:
        row_and_label += f', label {example["label"]}'
    print(printable(f'\nThe first training text ({row_and_label}), uncut:\n{example["text"]}'))


def print_labels(report):
    """The number of rows of each label, and the lengths of their texts."""
    label_counts = report['labels']
    if not report['labels']['train']:
        label_counts = {name: {ALL_TEXTS: n} for name, n in report['rows'].items()}
    splits = ''.join(f'{split_name:>10}' for split_name in label_counts)
    print(f'\n{"label":20}{splits}   tokens: p5   p50   p95   max')
    for label in [*label_counts['train'], *report['unknown_labels']]:
        n_rows = ''.join(f'{counts.get(label, 0):10,}' for counts in label_counts.values())
        n_tokens = ''.join(f'{n:6.0f}' for n in report['lengths'].get(label, []))
        print(f'{printable(label)[:20]:20}{n_rows}     {n_tokens}')


def print_columns(report):
    """What the columns other than the label hold, and whether one of them tells the label."""
    about_labels = ''
    if report['labels']['train']:
        about_labels = '  guess       chi2  df        p  goes with the label?'
    print(f'\n{"column":28} missing distinct{about_labels}')
    for name, column in report['columns'].items():
        line = f'{name[:28]:28} {column["missing"]:7,} {column["distinct"] or "many":>8}'
        if 'guess' in column:
            line += f'{column["guess"]:7.1%}'
        if 'p' in column:
            answer = 'yes' if column['p'] < 0.01 else 'no'
            line += f'{column["chi2"]:11.1f} {column["df"]:3} {column["p"]:8.2g}  {answer}'
        print(printable(line))

    # 'guess' is the share of rows whose label would be guessed right from this column's value
    # alone, as the other rows with this value have it. So it is about 0 for a column whose values
    # hardly repeat: for an id, and for the text itself. A column is suspicious if so little goes
    # wrong that it is less than 5 % of the errors of always guessing the commonest label.
    if not report['labels']['train']:
        return
    train_counts = report['labels']['train'].values()
    majority_error = 1 - max(train_counts) / sum(train_counts)
    for name, column in report['columns'].items():
        if 1 - column.get('guess', 0) < 0.05 * majority_error:
            print(
                f'{printable(name)} alone tells the label: '
                'what a model learns from the text may be no more than that'
            )


def main():
    config = configure(globals())
    folder = prepare(config)
    report = read_meta(folder, 'report.json')
    train_lengths = Split(folder, 'train').lengths

    report['tokenizer'] = report['tokenizer']['name']
    report['share_truncated'] = float((train_lengths > block_size).mean())
    print_report(report)
    names = ('dataset', 'tokenizer', 'rows', 'rejected', 'labels', 'tokens', 'share_truncated')
    summary = {name: report[name] for name in names}
    summary['folder'] = folder
    print(to_json(summary))


if __name__ == '__main__':
    run_script(main)
