"""The files of an evaluated run, made up without a model: for the tests of report.py's parts."""

import csv
import json
from pathlib import Path

import numpy as np

from nanosentiment.metrics import confusion, softmax, wilson
from nanosentiment.predictions import quote_formula

LABELS = ['negative', 'neutral', 'positive']

# a text that would break a spreadsheet, Markdown, YAML and HTML
NASTY = '=HYPERLINK("x") ``` | --- <script> # *bold*\n---\n```` $x$ ' + 'word ' * 100


def make_predictions(n, n_class, seed):
    """Truth i % n_class, every fifth prediction wrong -> targets, predictions, logits."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % n_class
    predictions = targets.copy()
    predictions[::5] = (targets[::5] + 1) % n_class
    logits = rng.uniform(0, 1, (n, n_class))
    logits[np.arange(n), predictions] += 1 + rng.uniform(0, 3, n)
    return targets, predictions, logits


def write_tables(folder, labels, targets, predictions, logits, temperature):
    """predictions.csv and errors.csv, which is in descending order of confidence."""
    confidence = softmax(logits / temperature).max(axis=1)
    columns = ['row', 'text', 'label', 'prediction', 'confidence', 'margin', 'loss', 'tokens']
    columns += ['truncated', 'tags']
    columns += [f'logit_{label}' for label in labels]
    rows = []
    for i in range(len(targets)):
        text = quote_formula(f'{NASTY} {i}')
        row = [i, text, labels[targets[i]], labels[predictions[i]], confidence[i]]
        row += [0.1, 0.5, 3 + i % 7, False, 'long', *logits[i]]
        rows.append(row)
    errors = [rows[i] for i in np.argsort(-confidence) if targets[i] != predictions[i]]
    for name, table in (('predictions', rows), ('errors', errors)):
        with open(folder / f'{name}.csv', 'w', newline='', encoding='utf-8') as f:
            csv.writer(f).writerows([columns, *table])


def write_log(path):
    """metrics.jsonl of four steps, each followed by an evaluation; the third is the best."""
    lines = []
    for i in range(1, 5):
        step = {'iter': i, 'epoch': i / 2, 'loss': 1 / i, 'lr': 0.1, 'norm': 1.0}
        evaluation = {'iter': i, 'epoch': i / 2, 'train_loss': 1 / i, 'val_loss': abs(i - 3) + 0.5}
        evaluation |= {'val_accuracy': 0.5, 'val_macro_f1': 0.4}
        lines += [json.dumps(step), json.dumps(evaluation)]
    # the end of a run that was killed
    lines.append('{"iter": 5, "epo')
    path.write_text('\n'.join(lines), encoding='utf-8')


def make_evaluation(labels, table, temperature):
    """What evaluation.json holds. Its figures are different ones, so that tests can tell them."""
    n = int(table.sum())
    hits = int(np.trace(table))
    per_class = {}
    for i, label in enumerate(labels):
        n_true = int(table[i].sum())
        recall = table[i, i] / n_true
        scores = {'precision': 0.711 + i / 100, 'recall': recall, 'f1': 0.731 + i / 100}
        per_class[label] = scores | {'support': n_true}
    return {
        'split': 'test',
        'n': n,
        'labels': labels,
        'accuracy': hits / n,
        'accuracy_ci': list(wilson(hits, n)),
        'macro_f1': 0.789,
        'macro_f1_ci': [0.612, 0.912],
        'per_class': per_class,
        'confusion': table.tolist(),
        'nll': 0.543,
        'ece': 0.087,
        'ece_calibrated': 0.034,
        'temperature': temperature,
        'coverage': [[0.5, 0.967, 0.81], [0.9, 0.2, None]],
        'tags': {},
        'baseline': {
            'majority': {'accuracy': 0.345, 'macro_f1': 0.171},
            'bag_of_words': {'accuracy': 0.82, 'macro_f1': 0.8},
        },
        'best': {'iter': 3, 'epoch': 1.5, 'val_loss': 0.5},
        'dataset': 'mine & yours v1.2',
        'tokenizer': 'bpe300',
        'n_params': 1234567,
        'n_train': 777,
        'n_val': 193,
        'git': 'c0ffee',
        'command': 'python train.py config/x.py --seed=1',
        'settings': {'block_size': 256, 'keep': 'last', 'seed': 1},
        'versions': {'python': '3.11', 'torch': '2.13', 'numpy': '2.4'},
    }


def write_run(folder, n=30, labels=LABELS, seed=0, with_evaluation=True, temperature=2.0):
    """Writes the files of an evaluated run; returns what evaluation.json holds."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    targets, predictions, logits = make_predictions(n, len(labels), seed)
    write_tables(folder, labels, targets, predictions, logits, temperature)
    write_log(folder / 'metrics.jsonl')
    table = confusion(targets, predictions, len(labels))
    evaluation = make_evaluation(labels, table, temperature)
    if with_evaluation:
        (folder / 'evaluation.json').write_text(json.dumps(evaluation), encoding='utf-8')
    return evaluation
