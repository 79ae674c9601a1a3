"""
Which labels are wrong? The rows whose given label is least believable to a model without them.

This is confident learning (Northcutt, Jiang and Chuang 2021, https://arxiv.org/abs/1911.00068).
The probabilities come from the folds of a cross-validation, where each row was predicted by a model
that was trained without it. evaluate.py writes what is found to suspects.csv:

    row          record number in the raw file, from 0
    text         as in predictions.csv
    label        the given one
    suggested    the label that the model believes
    p_label      calibrated probability of the given label
    p_suggested  of the suggested one
    fold         that has predicted the row
"""

import os
from collections import Counter

import numpy as np

from configurator import printable
from nanosentiment.metrics import softmax
from nanosentiment.predictions import (
    evaluate_command,
    output_paths,
    read_evaluation,
    read_predictions,
    write_table,
)
from nanosentiment.repeats import are_folds, find_runs

N_SHOWN = 5  # suspects that are printed


def find_suspects(probabilities, given):
    """
    Probabilities (n, K) and given labels (n,) -> the numbers of the suspicious rows (m,), the most
    suspicious first, and the label that is suggested for each (m,).

    A row is believed to have label k if its probability of k is at least the mean of that among the
    rows that are called k; of several such labels the most probable one. Who is called otherwise is
    suspicious, unless the most probable label of all is the given one. The mean differs from label
    to label, so a label of which the model is never sure has suspects, too.
    Example: two labels, given [0, 0, 1, 1], probabilities of label 1 [0.1, 0.9, 0.8, 0.9]: the mean
    of label 1 is 0.85, so row 1 is believed to have label 1.
    """
    n, n_class = probabilities.shape
    thresholds = np.ones(n_class)
    for k in range(n_class):
        if (given == k).any():
            thresholds[k] = probabilities[given == k, k].mean()
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)  # (n, K)
    suggested = confident.argmax(axis=1)
    is_confident = confident.max(axis=1) >= 0
    is_predicted_otherwise = probabilities.argmax(axis=1) != given
    suspects = np.flatnonzero(is_confident & (suggested != given) & is_predicted_otherwise)

    p_given = probabilities[suspects, given[suspects]]
    p_suggested = probabilities[suspects, suggested[suspects]]
    order = np.argsort(p_given - p_suggested, kind='stable')
    suspects = suspects[order]
    return suspects, suggested[suspects]


def read_folds(out_dir):
    """
    The out-of-fold predictions of a folder of folds -> rows, a list of dicts with row, text, label
    and fold; labels, the names of all; probabilities (n, K), calibrated, and given labels (n,).

    Rows whose label no fold was trained with are left out. ValueError if these are no folds, or if
    one of them has not been evaluated.
    """
    runs = find_runs(out_dir)
    if not are_folds(runs):
        what = f'{out_dir} holds no folds, in which each row is predicted by a model without it'
        raise ValueError(f'{what}; train them: python train.py ... --folds=5 --out_dir={out_dir}')
    folds = []
    labels = []
    for run in runs:
        remedy = f'run {evaluate_command(run)}'
        evaluation = read_evaluation(output_paths(run)['evaluation'], remedy)
        rows, names, logits = read_predictions(run)
        known = names[: logits.shape[1]]
        labels += [name for name in known if name not in labels]
        folds.append((run, rows, known, softmax(logits / evaluation['temperature'])))

    all_rows = []
    all_probabilities = []
    for run, rows, known, probabilities in folds:
        columns = [labels.index(name) for name in known]
        fold = os.path.basename(run).removeprefix('fold-')
        for row, probabilities_of_row in zip(rows, probabilities):
            if row['label'] not in labels:
                continue
            all_rows.append({key: row[key] for key in ('row', 'text', 'label')} | {'fold': fold})
            spread = np.zeros(len(labels))  # a label that this fold does not know has 0
            spread[columns] = probabilities_of_row
            all_probabilities.append(spread)
    given = np.array([labels.index(row['label']) for row in all_rows])
    return all_rows, labels, np.array(all_probabilities), given


def write_suspects(out_dir):
    """
    Writes suspects.csv of a folder of folds, see above. Returns what the last line of evaluate.py
    holds: rows, suspects, their share, how many for each pair of labels, and the first few.
    """
    rows, labels, probabilities, given = read_folds(out_dir)
    suspects, suggested = find_suspects(probabilities, given)
    names = np.array(labels)
    columns = {
        'row': [rows[i]['row'] for i in suspects],
        'text': [rows[i]['text'] for i in suspects],
        'label': names[given[suspects]],
        'suggested': names[suggested],
        'p_label': probabilities[suspects, given[suspects]],
        'p_suggested': probabilities[suspects, suggested],
        'fold': [rows[i]['fold'] for i in suspects],
    }
    path = os.path.join(out_dir, 'suspects.csv')
    write_table(path, columns, range(len(suspects)))

    pairs = Counter(zip(columns['label'].tolist(), columns['suggested'].tolist()))
    first = []
    for i in range(min(N_SHOWN, len(suspects))):
        first.append({name: str(values[i]) for name, values in columns.items()})
    return {
        'run': out_dir,
        'n': len(rows),
        'suspects': len(suspects),
        'share': len(suspects) / len(rows),
        'pairs': [[label, other, n] for (label, other), n in pairs.most_common()],
        'first': first,
        'files': {'suspects': path},
    }


def print_suspects(summary):
    """Shows what write_suspects returns."""
    n, n_suspects = summary['n'], summary['suspects']
    print(f'\n{n_suspects} of {n:,} labels are suspicious ({summary["share"]:.1%}):')
    for label, other, n_of_pair in summary['pairs'][:10]:
        print(f'{n_of_pair:6}  {printable(label)}, but rather {printable(other)}')
    if summary['first']:
        print('the most suspicious ones:')
    for suspect in summary['first']:
        text = ' '.join(suspect['text'].split())
        line = f'row {suspect["row"]}, {suspect["label"]}, rather {suspect["suggested"]}: {text}'
        print(f'  {printable(line)[:110]}')
    print(f'all of them, to be looked at by a person: {summary["files"]["suspects"]}')
