"""
Texts in, labels and probabilities out, with a run of train.py: its checkpoint holds the tokenizer, the cleaning and the
labels, so nothing of that is said again.
$ python sample_classify.py                            # a few built-in texts, with the last trained run
$ python sample_classify.py --text="It never arrived." # or --text=FILE:letter.txt
$ cat texts.txt | python sample_classify.py --json=True
$ python sample_classify.py --input=rows.csv --text_column=conversation --output=out.csv
"""

import csv
import glob
import itertools
import os
import stat
import sys
import time
from json import dumps  # json is a setting here

from configurator import configure, stop

# -----------------------------------------------------------------------------
out_dir = ''  # of train.py, or a .pt file; '' is the run trained last, below ./out
text = ''  # one text, or FILE:path; '' reads a pipe, one text a line, or shows the examples
input = ''  # a .csv, .tsv or .jsonl of any number of rows
text_column = ''  # of input; '' is the training data's
output = ''  # where input's rows go, with the label added: .csv, .tsv or .jsonl; '' is stdout, as CSV
json = False  # one JSON object a text
batch_size = 64
device = 'auto'
# -----------------------------------------------------------------------------

EXAMPLES = (
    'Customer: I have been waiting for three weeks and nobody answers my calls. This is unacceptable!',
    'Customer: Hello, could you tell me how to change the delivery address of my order?',
    'Customer: You solved in five minutes what I had feared for days. Thank you so much, wonderful service!',
    'Customer: The parcel was late, but your colleague was so kind that I do not mind at all.',
    'Customer: Great, the third broken kettle in a row. Just what I needed.',
)
CHUNK = 2048  # rows held in memory at a time


def last_run(root='out'):
    """The newest best.pt below root."""
    found = glob.glob(os.path.join(root, '**', 'best.pt'), recursive=True)
    return max(found, key=os.path.getmtime, default=None)


def piped():
    """Is there a pipe or a file at stdin? (A terminal, or nothing at all, is neither.)"""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


class Classifier:
    """A checkpoint, ready for use: texts -> (label, probability, runner-up, its probability, all, cut?) each."""

    def __init__(self, path, device='auto'):
        import torch  # only now: a mistyped flag should not wait for it

        from evaluate import open_run
        from train import choose_machine

        device, _ = choose_machine(device, 'float32')
        self.model, self.tokenizer, self.checkpoint = open_run(path, torch.device(device))

    def __call__(self, texts, batch_size=64):
        from evaluate import predict, softmax
        from prepare import clean, truncate

        t, settings, labels = self.tokenizer, self.checkpoint['settings'], self.checkpoint['labels']
        encoded = t.encode_batch([clean(text, **self.checkpoint['cleaning']) for text in texts])
        block_size = self.model.config.block_size
        ids = [truncate(x, block_size, settings['keep'], t.n_prefix, t.n_suffix) for x in encoded]
        out = []
        for x, p in zip(encoded, softmax(predict(self.model, ids, batch_size))):
            best, second = p.argsort()[::-1][:2]
            every = {label: round(float(q), 6) for label, q in zip(labels, p)}
            out.append((labels[best], every[labels[best]], labels[second], every[labels[second]], every, len(x) > block_size))
        return out


def show(text, result):
    """One line for people."""
    label, p, second, q, _, was_cut = result
    bar = '#' * round(10 * p)
    short = ' '.join(text.split())
    short = short if len(short) <= 70 else short[:67] + '...'
    print(f'{label:10} {bar:10} {p:.2f}  (else {second} {q:.2f})  {short}{"  [cut: too long]" if was_cut else ""}')


def classify_file(classify, path, column, out_path):
    """Rows of a table -> the same rows and columns with the label, its probability and the runner-up added; streamed."""
    from prepare import read_rows

    n, bad, writer, started = 0, 0, None, time.perf_counter()
    part = out_path + '.part' if out_path else None
    out = open(part, 'w', newline='', encoding='utf-8') if out_path else sys.stdout
    rows = read_rows(path)
    while chunk := list(itertools.islice(rows, CHUNK)):
        for line, _, reason in chunk:
            if reason:
                bad += 1
                print(f'{path} line {line}: {reason}; left out', file=sys.stderr)
        chunk = [row for _, row, reason in chunk if not reason]
        for row in chunk[:1] if writer is None else ():
            if column not in row:
                stop(f'{path}: there is no column {column!r}; set --text_column to one of {", ".join(row)}')
            new = [name if name not in row else f'predicted_{name}' for name in ('label', 'probability', 'runner_up')]
            writer = csv.DictWriter(out, [*row, *new], delimiter='\t' if out_path.endswith('.tsv') else ',')
            if not out_path.endswith('.jsonl'):
                writer.writeheader()
        for row, (label, p, second, *_) in zip(chunk, classify([row.get(column, '') for row in chunk], batch_size)):
            row |= zip(new, (label, p, second))
            if out_path.endswith('.jsonl'):
                out.write(dumps(row, ensure_ascii=False) + '\n')
            else:
                writer.writerow(row)
        n += len(chunk)
        speed = n / (time.perf_counter() - started)
        print(f'{n:,} rows, {speed:,.0f} rows/s', file=sys.stderr, end='\r' if sys.stderr.isatty() else '\n', flush=True)
    if out_path:
        out.close()
        os.replace(part, out_path)
    print(f'{n:,} rows classified{f", {bad:,} could not be read" if bad else ""}; {out_path or "stdout"}', file=sys.stderr)


if __name__ == '__main__':
    configure(globals())
    path = out_dir or last_run()
    if path and os.path.isdir(path):
        path = os.path.join(path, 'best.pt')
    if not path or not os.path.exists(path):
        first = 'run first: python train.py config/train_sentiment_scratch.py (about 3 minutes on two cores)'
        stop(f'there is no trained model {path or "below ./out"}; {first}')
    if input and not os.path.exists(input):
        stop(f'there is no file {input}; check --input')
    if text.startswith('FILE:') and not os.path.exists(text[5:]):
        stop(f'there is no file {text[5:]}; check --text')
    try:
        classify = Classifier(path, device)
    except Exception as e:
        stop(f'{path} cannot be opened as a checkpoint ({type(e).__name__}: {e}); train again or name another --out_dir')
    print(f'{path}, trained on {classify.checkpoint["dataset"]}', file=sys.stderr)
    if input:
        column = text_column or classify.checkpoint['text_column']
        classify_file(classify, input, column, output)
        raise SystemExit
    if text:
        texts = [open(text[5:], encoding='utf-8', errors='replace').read() if text.startswith('FILE:') else text]
    else:
        texts = (line.rstrip('\n') for line in sys.stdin if line.strip()) if piped() else iter(())
    texts = iter(texts)
    chunk = list(itertools.islice(texts, CHUNK))
    if not chunk:
        print(
            'examples; your own: --text="...", --text=FILE:path, a pipe, or --input=rows.csv --output=out.csv', file=sys.stderr
        )
        chunk = list(EXAMPLES)
    while chunk:
        for one, result in zip(chunk, classify(chunk, batch_size)):
            if json:
                keys = ('label', 'probability', 'runner_up', 'runner_up_probability', 'probabilities', 'truncated')
                print(dumps({'text': one} | dict(zip(keys, result)), ensure_ascii=False))
            else:
                show(one, result)
        chunk = list(itertools.islice(texts, CHUNK))
