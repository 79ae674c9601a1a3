"""
predictions.csv and errors.csv: how `evaluation.evaluate` writes them, and how others read them.

predictions.csv has one row per text, errors.csv the wrong ones among them, the most confident
first. Their columns are

    row           record number in the raw file, from 0
    text          as it stands in the raw file; a pair of texts is 'first | second'
    label         the true one
    prediction    the most probable label
    confidence    its calibrated probability: softmax of logits / temperature
    margin        by how much that exceeds the probability of the second label
    loss          -ln of the true label's calibrated probability; inf for a label that the run does
                  not know. The nll in evaluation.json is that of the raw logits, so it is not the
                  mean of this column
    tokens        length of the text before it is cut to block_size
    truncated     True if it was cut
    tags          those of error_tags.py, with spaces between them
    logit_<label> the raw logit of each label that the run knows

A text that a spreadsheet would run as a formula has a quote before it, see `quote_formula`. Labels
and numbers stand there as they are: the label -1 is -1.
Nothing here needs torch, because report.py reads the tables without it.
"""

import csv
import os

import numpy as np

from nanosentiment.files import checksum, open_whole, read_sealed_json
from nanosentiment.labels import label_order
from nanosentiment.metrics import negative_log_likelihood
from nanosentiment.pairs import show_pair

# characters of one cell; the csv module's own limit is 131,072, and a text may be longer
MAX_CELL = 1 << 27

# columns that hold texts of other people: llm.py writes answers with write_table
TEXT_COLUMNS = ('text', 'answer')

# -----------------------------------------------------------------------------
# where the tables are, and the command that writes them


def output_paths(out_dir, split='test', input='', windows=False):
    """
    Where the files of an evaluation lie: {'predictions', 'errors', 'explanations', 'evaluation':
    path}.

    Only best.pt on the test split has the plain names, which the report and --seeds read.
    Examples: predictions-val.csv, predictions-input-windows.csv, and predictions-last-val.csv of
    last.pt
    """
    folder = os.fspath(out_dir)
    suffix = ''
    if folder.endswith('.pt'):
        folder, checkpoint_name = os.path.split(folder)
        if checkpoint_name != 'best.pt':
            suffix = '-' + checkpoint_name.removesuffix('.pt')
    if input:
        suffix += '-input'
    elif split != 'test':
        suffix += f'-{split}'
    if windows:
        suffix += '-windows'
    return {
        'predictions': os.path.join(folder, f'predictions{suffix}.csv'),
        'errors': os.path.join(folder, f'errors{suffix}.csv'),
        'explanations': os.path.join(folder, f'explanations{suffix}.jsonl'),
        'evaluation': os.path.join(folder, f'evaluation{suffix}.json'),
    }


# what all readers of evaluation.json need
EVALUATION = {
    'split': str,
    'n': int,
    'accuracy': (float, int),
    'macro_f1': (float, int),
    'confusion': list,
    'labels': list,
    'baseline': dict,
    'settings': dict,
}


def read_evaluation(path, remedy):
    """An evaluation.json -> dict. ValueError if it is missing, damaged or of something else."""
    return read_sealed_json(path, remedy, EVALUATION)


def read_evaluation_if_any(run):
    """What evaluation.json of a run's folder holds; {} without that file."""
    path = output_paths(run)['evaluation']
    if not os.path.exists(path):
        return {}
    return read_evaluation(path, f'run {evaluate_command(run)}')


def evaluate_command(out_dir, split='test', input='', windows=False):
    """The command that writes the files of `output_paths` for the same arguments."""
    command = f'python evaluate.py --out_dir={out_dir}'
    if input:
        command += f' --input={input}'
    elif split != 'test':
        command += f' --split={split}'
    if windows:
        command += ' --windows=True'
    return command


# -----------------------------------------------------------------------------
# cells


FORMULA_STARTS = ('=', '+', '-', '@', '\t', '\r')


def quote_formula(cell):
    """
    A quote in front of what a spreadsheet would run as a formula: it is shown as text then.

    A cell that begins with a quote gets another one, so that `unquote_formula` can tell the two.
    """
    if cell.startswith((*FORMULA_STARTS, "'")):
        return "'" + cell
    return cell


def unquote_formula(cell):
    """The cell as it was before `quote_formula`."""
    if cell.startswith("'") and cell[1:].startswith((*FORMULA_STARTS, "'")):
        return cell[1:]
    return cell


def format_cell(column, value):
    """A value as it is written: a text safe for spreadsheets, a float with five digits."""
    if column in TEXT_COLUMNS:
        return quote_formula(value)
    if isinstance(value, (float, np.floating)):
        return f'{value:.5f}'
    return value


# -----------------------------------------------------------------------------
# writing


def prediction_columns(classifier, examples, logits, probabilities, predictions, confidence, tags):
    """
    The columns of predictions.csv: {name: n values}.

    logits and probabilities are (n, K), predictions and confidence (n,); tags holds a list for each
    text.
    """
    label_names = np.array(examples.labels)
    targets = examples.targets

    second_probability = np.sort(probabilities, axis=1)[:, -2]
    is_known = targets < len(classifier.labels)
    loss = np.full(len(targets), np.inf)
    loss[is_known] = negative_log_likelihood(probabilities[is_known], targets[is_known])

    columns = {
        'row': examples.record_numbers,
        'text': [show_pair(text) for text in examples.texts],
        'label': label_names[targets],
        'prediction': label_names[predictions],
        'confidence': confidence,
        'margin': confidence - second_probability,
        'loss': loss,
        'tokens': examples.lengths,
        'truncated': [classifier.is_truncated(length) for length in examples.lengths],
        'tags': [' '.join(tags_of_text) for tags_of_text in tags],
    }
    for i, label in enumerate(classifier.labels):
        columns[f'logit_{label}'] = logits[:, i]
    return columns


def write_table(path, columns, order):
    """Writes {name: values} as CSV: the rows whose numbers are in order, and in that order."""
    with open_whole(path, newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(columns)
        for i in order:
            cells = [format_cell(column, values[i]) for column, values in columns.items()]
            writer.writerow(cells)


# -----------------------------------------------------------------------------
# reading


def read_table(path, command):
    """
    A table of `evaluate` -> the names of its columns, its rows as dicts of str. The texts are
    without the quotes of `quote_formula`.

    Raises ValueError if it is missing or damaged; the command is the one that writes it.
    """
    csv.field_size_limit(MAX_CELL)
    remedy = f'run {command}'
    try:
        with open(path, newline='', encoding='utf-8-sig', errors='replace') as f:
            reader = csv.DictReader(f)
            rows = list(reader)
            columns = list(reader.fieldnames or [])
    except (OSError, csv.Error) as error:
        raise ValueError(f'{path} cannot be read ({error}); {remedy}') from None
    for column in ('row', 'text', 'label', 'prediction'):
        if column not in columns:
            raise ValueError(f'{path} has no column {column}; {remedy}')
    for number, row in enumerate(rows, 1):
        # csv.DictReader puts surplus cells under the key None, and None into missing cells
        if None in row or None in row.values():
            raise ValueError(f'{path}: row {number} does not fit the header; {remedy}')
        row['text'] = unquote_formula(row['text'])
    return columns, rows


def check_table(out_dir, table='predictions', split='test', input='', windows=False):
    """
    ValueError if a table is not the one that belongs to evaluation.json, which has its checksum: it
    was changed or damaged, or evaluate.py was killed between the two.
    """
    paths = output_paths(out_dir, split, input, windows)
    if not os.path.exists(paths['evaluation']):
        return
    remedy = f'run {evaluate_command(out_dir, split, input, windows)}'
    checksums = read_evaluation(paths['evaluation'], remedy).get('checksums', {})
    if table in checksums and checksum(paths[table]) != checksums[table]:
        raise ValueError(f'{paths[table]} is not as evaluate.py has written it; {remedy}')


def read_predictions(out_dir, table='predictions', split='test', input='', windows=False):
    """
    A table of `evaluate` -> its rows as dicts, all label names, the logits (n, K) of the first K.

    table is 'predictions' or 'errors'; for the other arguments see `output_paths`. The cells are
    str, the texts without the quotes of `quote_formula`. Each row also has the numbers of its label
    and its prediction, 'truth' and 'guess'. Labels after the first K are those that the run does
    not know. Raises ValueError if the table is missing or damaged.
    """
    path = output_paths(out_dir, split, input, windows)[table]
    command = evaluate_command(out_dir, split, input, windows)
    columns, rows = read_table(path, command)
    check_table(out_dir, table, split, input, windows)
    logit_columns = [column for column in columns if column.startswith('logit_')]
    known = [column.removeprefix('logit_') for column in logit_columns]
    unknown = {row['label'] for row in rows}.difference(known)
    labels = known + sorted(unknown, key=label_order)
    logits = np.zeros((len(rows), len(known)))
    try:
        for i, row in enumerate(rows):
            row['truth'] = labels.index(row['label'])
            row['guess'] = known.index(row['prediction'])
            logits[i] = [float(row[column]) for column in logit_columns]
    except ValueError as error:
        raise ValueError(f'{path} cannot be read ({error}); run {command}') from None
    return rows, labels, logits


def read_all_predictions(runs):
    """
    The predictions of a run, or of all folds one after the other -> rows, labels and logits (n, K),
    as read_predictions returns them, and the temperature that calibrates each row (n,).

    Each row also has the name of its run, 'run'. A temperature that is not known is 1.
    ValueError if the runs know other labels, or if one of them was not evaluated.
    """
    all_rows = []
    all_logits = []
    temperatures = []
    all_labels = None
    for run in runs:
        rows, labels, logits = read_predictions(run)
        if all_labels not in (None, labels):
            what = f'{run} has other labels than {runs[0]}'
            raise ValueError(f'{what}; evaluate both again, or train the folds of one data set')
        all_labels = labels
        temperature = read_evaluation_if_any(run).get('temperature', 1.0)
        name = os.path.basename(os.path.abspath(run))
        all_rows += [row | {'run': name} for row in rows]
        all_logits.append(logits)
        temperatures += [temperature] * len(rows)
    return all_rows, all_labels, np.concatenate(all_logits), np.array(temperatures)
