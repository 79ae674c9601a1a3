"""
Does a temperature fitted on some validation texts calibrate others? Runs are not trained again.

For each run, 20 times: the temperature is fitted on a random half of the validation split, and the
expected calibration error (ECE) is measured on the other half and on the test split.

$ python evaluate.py --out_dir=out/minilm_sst2 --split=val  # and the same for the test split
$ python -m results.calibration out/minilm_sst2 out/mpnet_sst2
"""

import json
import sys

import numpy as np

from nanosentiment.card import markdown_table
from nanosentiment.metrics import ece, fit_temperature, softmax
from nanosentiment.predictions import read_predictions

REPEATS = 20


def read_logits(run, split):
    """-> logits (n, K) and true labels (n,) of a run's predictions"""
    rows, _, logits = read_predictions(run, split=split)
    return logits, np.array([row['truth'] for row in rows])


def repeat(run):
    """-> {'temperature', 'other half, before', ...: values of all repeats (REPEATS,)}"""
    val_logits, val_targets = read_logits(run, 'val')
    test_logits, test_targets = read_logits(run, 'test')
    rng = np.random.default_rng(0)
    values = {}
    for _ in range(REPEATS):
        order = rng.permutation(len(val_targets))
        half, other_half = np.array_split(order, 2)
        temperature = fit_temperature(val_logits[half], val_targets[half])
        texts = {
            'other half': (val_logits[other_half], val_targets[other_half]),
            'test': (test_logits, test_targets),
        }
        values.setdefault('temperature', []).append(temperature)
        for name, (logits, targets) in texts.items():
            before = ece(softmax(logits), targets)
            after = ece(softmax(logits / temperature), targets)
            values.setdefault(f'{name}, before', []).append(before)
            values.setdefault(f'{name}, after', []).append(after)
    return {name: np.array(numbers) for name, numbers in values.items()}


def main():
    rows = []
    for run in sys.argv[1:]:
        values = repeat(run)
        cells = [run]
        summary = {'run': run, 'repeats': REPEATS}
        for name, numbers in values.items():
            low, high = np.quantile(numbers, (0.025, 0.975))
            cells.append(f'{numbers.mean():.3f} [{low:.3f}, {high:.3f}]')
            summary[name] = [round(x, 4) for x in (numbers.mean(), low, high)]
        rows.append(cells)
        print(json.dumps(summary))
    print(markdown_table(['run', *values], rows))


if __name__ == '__main__':
    main()
