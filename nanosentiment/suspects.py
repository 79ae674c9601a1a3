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
from nanosentiment.labels import shorten_line
from nanosentiment.metrics import softmax
from nanosentiment.predictions import (
    evaluate_command,
    output_paths,
    read_all_predictions,
    read_evaluation,
    write_table,
)
from nanosentiment.repeats import are_folds, find_runs

N_SHOWN = 5  # suspects that are printed


def find_suspects(probabilities, given):
    """
    Probabilities (n, K) and given labels (n,) -> the numbers of the suspicious rows (m,), the most
    suspicious first, and the label that is suggested for each (m,).

    A row is believed to have label k if its probability of k is at least the mean of that among the
    rows whose given label is k; of several such labels, the most probable one. It is suspicious if
    that is not its given label, and if the given label is not the most probable one of all either.
    The mean differs from label to label, so a label of which the model is never sure has suspects,
    too.
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

    Rows whose label is in one fold alone are left out: the model of that fold was trained without
    that label. ValueError if these are no folds, or if one of them has not been evaluated.
    """
    runs = find_runs(out_dir)
    if not are_folds(runs):
        what = f'{out_dir} holds no folds, in which each row is predicted by a model without it'
        raise ValueError(f'{what}; train them: python train.py ... --folds=5 --out_dir={out_dir}')
    for run in runs:
        read_evaluation(output_paths(run)['evaluation'], f'run {evaluate_command(run)}')
    rows, labels, logits, temperatures = read_all_predictions(runs)
    probabilities = softmax(logits / temperatures[:, None])

    folds_of_label = {}
    for row in rows:
        folds_of_label.setdefault(row['label'], set()).add(row['run'])
    is_used = np.array([len(folds_of_label[row['label']]) > 1 for row in rows])
    used_rows = []
    for i in np.flatnonzero(is_used):
        row = {key: rows[i][key] for key in ('row', 'text', 'label')}
        used_rows.append(row | {'fold': rows[i]['run'].removeprefix('fold-')})
    given = np.array([row['truth'] for row in rows])
    return used_rows, labels, probabilities[is_used], given[is_used]


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
        labels = f'{suspect["label"]}, rather {suspect["suggested"]}'
        line = f'row {suspect["row"]}, {labels}: {suspect["text"]}'
        print(f'  {printable(shorten_line(line, 110))}')
    print(f'all of them, to be looked at by a person: {summary["files"]["suspects"]}')
