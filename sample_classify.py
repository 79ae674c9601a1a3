"""
Texts in, labels and probabilities out, with a run of train.py: tokenizer, cleaning and labels travel in its checkpoint.
$ python sample_classify.py                            # a few built-in texts, with the last trained run
$ python sample_classify.py --text="It never arrived." # or --text=FILE:letter.txt
$ cat texts.txt | python sample_classify.py --json=True
$ python sample_classify.py --input=rows.csv --text_column=conversation --output=out.csv
"""

import contextlib
import csv
import itertools
import os
import pathlib
import signal
import stat
import sys
import time
from json import dumps  # json is a setting here

from configurator import configure, stop

# -----------------------------------------------------------------------------
out_dir = ''  # of train.py, or a .pt file; of several runs, below ./out where it is '', the one trained last
text = ''  # one text, or FILE:path; '' reads a pipe, one text a line, or shows the examples
input = ''  # a .csv, .tsv or .jsonl of any number of rows
text_column = ''  # of input; '' is the training data's
output = ''  # where input's rows go, with the label added: .csv, .tsv or .jsonl; '' is stdout, as CSV
json = False  # one JSON object a text, or a row of input
threshold = 0.0  # 0.8: the answer is "uncertain" where the best label is less probable; evaluate.py shows what that buys
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
CHUNK, NEW = 2048, ('label', 'probability', 'runner_up')  # rows held in memory at a time; what they get
UNQUOTED, NO_BREAKS = dict(delimiter='\t', quoting=csv.QUOTE_NONE, quotechar=None), dict.fromkeys(b'\t\r\n', ' ')  # of a .tsv
NO_UTF8 = (b'', b'\xff\xfe', b'\xfe\xff')  # how a file begins that is empty, or UTF-16


def piped():
    """Is there a pipe or a file at stdin? A terminal, or nothing at all, is neither."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def classify(texts):
    """A list of texts -> a dict each: label, probability, runner_up, probabilities, truncated."""
    cleaning = {key: checkpoint['recipe'][key] for key in CLEANING}
    encoded = tokenizer.encode_batch([clean(text, **cleaning) for text in texts])
    block_size, keep = model.config.block_size, checkpoint['settings']['keep']
    ids = [truncate(x, block_size, keep, tokenizer.n_prefix, tokenizer.n_suffix) for x in encoded]
    out = []
    logits = predict(model, ids, batch_size, ptdtype) / checkpoint.get('temperature', 1.0)  # metrics.fit_temperature
    for x, p in zip(encoded, softmax(logits).tolist()):
        every = dict(zip(checkpoint['labels'], p))
        best, second = sorted(every, key=every.get, reverse=True)[:2]
        every = {label: round(share, 4) for label, share in every.items()}
        found = dict(label=best if every[best] >= threshold else 'uncertain', probability=every[best])
        out.append(found | dict(runner_up=second, probabilities=every, truncated=len(x) > block_size))
    return out


def show(text, c):
    """One line for people."""
    bar, text, other = '#' * round(10 * c['probability']), ' '.join(text.split()), c['runner_up']
    odds = f'{c["label"]:10} {bar:10} {c["probability"]:.2f}  (else {other} {c["probabilities"][other]:.2f})'
    print(f'{odds}  {text if len(text) < 80 else text[:77] + "..."}' + '  [only a part was read: too long]' * c['truncated'])


def classify_file(path, column, header, out):
    """The rows of a table, streamed to the open file out with label, probability and runner_up added to their columns."""
    n, broken, cut, rows, started = 0, 0, 0, read_rows(path), time.perf_counter()
    end, flat = '\r' if sys.stderr.isatty() else '\n', output.endswith('.tsv')
    new = [next(x for k in itertools.count() if (x := 'predicted_' * k + name) not in header) for name in NEW]
    writer = csv.DictWriter(out, header + new, '', **(UNQUOTED if flat else {}))
    if not as_json:
        writer.writerow({k: k.translate(NO_BREAKS) if flat else k for k in header + new})
    while chunk := list(itertools.islice(rows, CHUNK)):
        for line, _, reason in (odd := [x for x in chunk if x[2]]):
            print(f'{path} line {line}: {reason}; left out', file=sys.stderr)
        broken, chunk = broken + len(odd), [row for _, row, reason in chunk if not reason]
        for row, c in zip(chunk, classify([row.get(column, '') for row in chunk])):
            row |= zip(new, (c[name] if row.get(column, '').strip() else '' for name in NEW))  # no text, no label
            cut += c['truncated']
            if as_json:
                out.write(dumps(row, ensure_ascii=False) + '\n')
            else:
                writer.writerow({k: str(x).translate(NO_BREAKS) for k, x in row.items()} if flat else row)
        n += len(chunk)
        print(f'{n:,} rows, {n / (time.perf_counter() - started):,.0f} a second', file=sys.stderr, end=end)
    print(f'{n:,} rows classified, {cut:,} cut as too long, {broken:,} left out; {output or "stdout"}', file=sys.stderr)


if __name__ == '__main__':
    configure(globals())
    if batch_size < 1 or not 0 <= threshold <= 1 or text and input:
        stop(f'batch_size={batch_size}, threshold={threshold}: a positive number, a probability, and either --text or --input')
    source, goal, part = (pathlib.Path(name).resolve() for name in (input, output, f'{output}.part'))
    if output and (not input or source in (goal, part) or goal.is_dir() or not os.access(goal.parent, os.W_OK)):
        stop(f'output={output} takes the rows of another file, named by --input=, is a file, in a folder that exists; mend one')
    found = [out_dir] if out_dir.endswith('.pt') else pathlib.Path(out_dir or 'out').rglob('best.pt')
    path = max(filter(os.path.exists, found), key=os.path.getmtime, default='')
    if not path:
        stop(f'no trained model {out_dir or "below ./out"}; run first: python train.py config/train_sentiment_scratch.py')
    for name, setting in ((input, 'input'), (text[5:] or ' ' if text.startswith('FILE:') else '', 'text')):
        if name and not (os.path.isfile(name) and os.access(name, os.R_OK) and open(name, 'rb').read(2) not in NO_UTF8):
            stop(f'there is no file {name} that can be read, or nothing in it, in UTF-8; check --{setting}')

    from batches import predict  # torch, only now: a mistyped flag should not wait for it
    from evaluate import choose_machine, open_run
    from metrics import softmax
    from prepare import CLEANING, clean, read_rows, truncate

    try:
        model, tokenizer, checkpoint = open_run(path, choose_machine(device)[0])
        device, ptdtype = choose_machine(device, 'auto', checkpoint['settings']['dtype'])
    except ValueError as e:
        stop(e)
    print(f'{path}, trained on {checkpoint["dataset"]}', file=sys.stderr)
    getattr(sys.stdout, 'reconfigure', dict)(encoding='utf-8' if input or json else None, errors='backslashreplace')
    if hasattr(signal, 'SIGPIPE'):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" has seen enough: end without a word
    if input:
        column, as_json = text_column or checkpoint['recipe']['columns'][0], json or output.endswith(('.json', '.jsonl'))
        rows = (row for _, row, reason in read_rows(input) if not reason)  # of a JSONL any may bring further columns
        header = list(max(rows, key=len, default={}) if input.lower().endswith('.jsonl') else next(rows, {}))
        if column not in header:
            stop(f'{input}: no column {column!r}; set --text_column to one of {", ".join(header) or "a header, all in UTF-8"}')
        with open(part, 'w', newline='', encoding='utf-8') if output else contextlib.nullcontext(sys.stdout) as f:
            classify_file(input, column, header, f)
        if output:
            os.replace(part, output)
        raise SystemExit
    text = open(text[5:], encoding='utf-8-sig', errors='replace').read() if text.startswith('FILE:') else text
    lines = [text] if text else open(0, encoding='utf-8-sig', errors='replace') if piped() else EXAMPLES
    if lines is EXAMPLES:
        print('examples; your own: --text="...", --text=FILE:path, a pipe, --input=rows.csv --output=out.csv', file=sys.stderr)
    texts = (line.rstrip('\n') for line in lines if line.strip() or text)
    while chunk := list(itertools.islice(texts, CHUNK)):
        for one, c in zip(chunk, classify(chunk)):
            print(dumps({'text': one} | c, ensure_ascii=False)) if json else show(one, c)
