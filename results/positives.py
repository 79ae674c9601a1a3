"""
What would more texts of the rare label be worth? customer_service has 17 positive training texts:
train on 5, 9, 13 and all of them, each time with all other texts, and test on the 30 test texts.

Each number is drawn three times, with seeds 1 to 3, which are also those of the training.
$ python -m results.positives config/train_sentiment_scratch.py --device=cpu --dtype=float32
prints a line of JSON for each training, with the number of positive texts in it.
"""

import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from nanosentiment.datasets import DATA_DIR, find_raw

NUMBERS = (5, 9, 13, 17)
SEEDS = (1, 2, 3)
LABEL_COLUMN = 'customer_sentiment'


def write_fewer_positives(source, path, n, seed):
    """Copies a table with n of its positive rows, drawn with the seed, and all of the others."""
    with open(source, newline='', encoding='utf-8') as f:
        reader = csv.DictReader(f)
        rows = list(reader)
    positives = [i for i, row in enumerate(rows) if row[LABEL_COLUMN] == 'positive']
    dropped = set(positives) - set(random.Random(seed).sample(positives, n))
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.DictWriter(f, reader.fieldnames)
        writer.writeheader()
        writer.writerows(row for i, row in enumerate(rows) if i not in dropped)


def main():
    files = find_raw('customer_service', DATA_DIR, '')
    for n in NUMBERS:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                table = Path(folder, f'positives_{n}.csv')
                write_fewer_positives(files['train'], table, n, seed)
                flags = [
                    f'--dataset={table}',
                    f'--test_file={files["test"]}',
                    '--text_column=conversation',
                    f'--label_column={LABEL_COLUMN}',
                    f'--seed={seed}',
                    f'--data_dir={folder}',
                    f'--out_dir={folder}/run',
                ]
                command = [sys.executable, 'train.py', *sys.argv[1:], *flags]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = json.loads(printed.splitlines()[-1])
            print(json.dumps({'n_positive': n} | result), flush=True)


if __name__ == '__main__':
    main()
