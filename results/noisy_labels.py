"""
Does `evaluate.py --suspects=True` find wrong labels? 5 % of the labels of a table are made wrong.

$ python -m results.noisy_labels make customer_service noisy.csv
$ python train.py config/train_sentiment_scratch.py --folds=5 --dataset=noisy.csv --test_file= \
      --text_column=conversation --label_column=customer_sentiment --out_dir=out/noisy
$ python -m results.noisy_labels score noisy.csv out/noisy

For sst2 it was config/finetune_own.py with --text_column=sentence --label_column=label.

make copies the training table of a known data set, of SST-2 only 2,000 rows, which are drawn with
seed 0. It replaces the labels of 5 % of the rows, drawn with seed 1, each by one of the others. A
column was_flipped tells which; no program reads it. score compares the suspects with these rows,
beside those of the package cleanlab (pip install cleanlab) for the same probabilities.
"""

import csv
import json
import random
import sys

import numpy as np

from nanosentiment.datasets import DATA_DIR, find_raw
from nanosentiment.suspects import find_suspects, read_folds
from nanosentiment.tables import Table

SHARE = 0.05
# text column, label column and how many rows, None for all
DATA = {
    'customer_service': ('conversation', 'customer_sentiment', None),
    'sst2': ('sentence', 'label', 2000),
}


def make(name, path):
    text_column, label_column, n = DATA[name]
    rows = [row for _, row, reason in Table(find_raw(name, DATA_DIR, '')['train']) if not reason]
    if n is not None:
        rows = random.Random(0).sample(rows, n)
    labels = sorted({row[label_column] for row in rows})
    draw = random.Random(1)
    flipped = set(draw.sample(range(len(rows)), round(SHARE * len(rows))))
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow([text_column, label_column, 'was_flipped'])
        for i, row in enumerate(rows):
            label = row[label_column]
            if i in flipped:
                label = draw.choice([other for other in labels if other != label])
            writer.writerow([row[text_column], label, int(i in flipped)])
    print(json.dumps({'data': name, 'rows': len(rows), 'flipped': len(flipped)}))


def precision_recall(found, is_flipped):
    """The numbers of the found rows, is_flipped (n,) -> a dict of counts and shares."""
    n_right = int(is_flipped[found].sum())
    return {
        'found': len(found),
        'right': n_right,
        'precision': round(n_right / max(len(found), 1), 4),
        'recall': round(n_right / int(is_flipped.sum()), 4),
    }


def score(path, out_dir):
    from cleanlab.filter import find_label_issues

    flags = np.array([row['was_flipped'] == '1' for _, row, _ in Table(path)])
    rows, _, probabilities, given = read_folds(out_dir)
    is_flipped = flags[[int(row['row']) for row in rows]]
    n_flipped = int(is_flipped.sum())
    suspects, _ = find_suspects(probabilities, given)
    result = {'run': out_dir, 'rows': len(rows), 'flipped': n_flipped}
    result['accuracy on the labels as given'] = float((probabilities.argmax(1) == given).mean())
    result['suspects'] = precision_recall(suspects, is_flipped)
    result['as many suspects as flipped'] = precision_recall(suspects[:n_flipped], is_flipped)
    for method in ('prune_by_noise_rate', 'confident_learning'):
        issues = find_label_issues(
            given, probabilities, return_indices_ranked_by='normalized_margin', filter_by=method
        )
        result[f'cleanlab, {method}'] = precision_recall(issues, is_flipped)
    print(json.dumps(result))


if __name__ == '__main__':
    if sys.argv[1] == 'make':
        make(*sys.argv[2:])
    else:
        score(*sys.argv[2:])
