"""
Texts in, labels and probabilities out, with a model that train.py has trained.

The checkpoint brings its tokenizer, cleaning and labels along, so none of them is given here.

$ python sample_classify.py                             # a few built-in texts, the newest run
$ python sample_classify.py --text="It never arrived."  # or --text=FILE:letter.txt
$ cat texts.txt | python sample_classify.py --json=True
$ python sample_classify.py --input=rows.csv --text_column=conversation --output=out.csv
"""

import csv
import itertools
import os
import signal
import stat
import sys
import time
from json import dumps  # not the module, because json is a setting here
from pathlib import Path

from configurator import configure, stop
from nanosentiment.tables import read_rows

# -----------------------------------------------------------------------------
# model
out_dir = ''  # folder of a run, or a .pt file; '' is ./out. Of several runs below it, the newest
# texts
text = ''  # one text, or FILE:path; '' reads a pipe, one text per line, or shows the examples
input = ''  # a .csv, .tsv or .jsonl table with any number of rows
text_column = ''  # of input; '' is the training data's
# answers
output = ''  # copy of input with the labels added: .csv, .tsv or .jsonl; '' is stdout, as CSV
json = False  # one JSON object per text, or per row of input
threshold = 0.0  # 0.8: answer "uncertain" below that probability; evaluate.py shows what it buys
# system
batch_size = 64
device = 'auto'
# -----------------------------------------------------------------------------

EXAMPLES = (
    'Customer: I have been waiting for three weeks and nobody answers my calls. '
    'This is unacceptable!',
    'Customer: Hello, could you tell me how to change the delivery address of my order?',
    'Customer: You solved in five minutes what I had feared for days. '
    'Thank you so much, wonderful service!',
    'Customer: The parcel was late, but your colleague was so kind that I do not mind at all.',
    'Customer: Great, the third broken kettle in a row. Just what I needed.',
)
ANSWER_COLUMNS = ('label', 'probability', 'runner_up')  # what a row of a table gets
CHUNK = 2048  # texts that are in memory at a time

# -----------------------------------------------------------------------------
# checks, all of them before torch is imported


def check_settings():
    """Stops with one line where the settings contradict each other or cannot be meant."""
    if batch_size < 1:
        stop(f'batch_size={batch_size} is too small; set it to 1 or more')
    if not 0 <= threshold <= 1:
        stop(f'threshold={threshold} is no probability; set it to a number from 0 to 1')
    if text and input:
        stop('--text and --input are both given; leave out either of them')
    if output:
        check_output()
    if input:
        check_readable(input, 'input')
    if text.startswith('FILE:'):
        check_readable(text.removeprefix('FILE:'), 'text')


def check_output():
    """Stops if output cannot be written, or if writing it would destroy the input."""
    if not input:
        stop(f'output={output} takes the rows of a table; name that table with --input=')
    source = Path(input).resolve()
    target = Path(output).resolve()
    if source in (target, Path(part_file()).resolve()):
        stop(f'output={output} would overwrite input={input}; write to another file')
    if target.is_dir():
        stop(f'output={output} is a folder; name a file in it')
    if not os.access(target.parent, os.W_OK):
        stop(f'output={output} lies in a folder that is missing or read-only; name another folder')


def part_file():
    """Where the rows are written until all of them are there."""
    return output + '.part'


def check_readable(path, setting):
    """Stops unless path is a file that can be read, with something in it, and not in UTF-16."""
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        stop(f'there is no file {path!r} that can be read; check --{setting}')
    with open(path, 'rb') as f:
        beginning = f.read(2)
    if not beginning:
        stop(f'{path} is empty; check --{setting}')
    if beginning in (b'\xff\xfe', b'\xfe\xff'):
        stop(f'{path} is in UTF-16; save it in UTF-8, or check --{setting}')


def find_run():
    """The checkpoint to use: out_dir itself if it is a .pt file, else the newest one below it."""
    if out_dir.endswith('.pt'):
        candidates = [Path(out_dir)]
    else:
        candidates = Path(out_dir or 'out').rglob('best.pt')
    checkpoints = [path for path in candidates if path.exists()]
    if not checkpoints:
        remedy = 'run first: python train.py config/train_sentiment_scratch.py'
        stop(f'there is no trained model in {out_dir or "./out"}; {remedy}')
    return max(checkpoints, key=os.path.getmtime)


# -----------------------------------------------------------------------------
# a table


def classify_table(classifier):
    """Copies the table `input` to `output` or stdout, with the answers added to its rows."""
    column = text_column or classifier.checkpoint['recipe']['columns'][0]
    columns = table_columns(input)
    if column not in columns:
        choices = ', '.join(columns) or 'a header, all in UTF-8'
        stop(f'{input}: there is no column {column!r}; set --text_column to one of {choices}')
    if output:
        # the output gets its name when it is whole
        with open(part_file(), 'w', newline='', encoding='utf-8') as out:
            classify_rows(classifier, column, columns, out)
        os.replace(part_file(), output)
    else:
        classify_rows(classifier, column, columns, sys.stdout)


def table_columns(path):
    """The names of a table's columns; [] if it has no usable row."""
    rows = (row for _, row, reason in read_rows(path) if not reason)
    if path.lower().endswith('.jsonl'):
        # any row may bring further columns, so all of them are read
        return list(max(rows, key=len, default={}))
    return list(next(rows, {}))


def classify_rows(classifier, column, columns, out):
    """
    Classifies the rows of `input`, a chunk at a time, and writes them to the open file out.

    A row that cannot be read is reported on stderr and left out; a row whose text is blank is
    written without an answer.
    """
    names = {name: free_name(name, columns) for name in ANSWER_COLUMNS}
    as_json = json or output.endswith(('.json', '.jsonl'))
    writer = None if as_json else open_table(out, [*columns, *names.values()])

    n_rows, n_rejected, n_cut = 0, 0, 0
    started = time.perf_counter()
    progress_end = '\r' if sys.stderr.isatty() else '\n'
    rows = read_rows(input)
    while chunk := list(itertools.islice(rows, CHUNK)):
        usable = []
        for line_number, row, reason in chunk:
            if reason:
                print(f'{input} line {line_number}: {reason}; left out', file=sys.stderr)
                n_rejected += 1
            else:
                usable.append(row)

        texts = [row.get(column, '') for row in usable]
        answers = classifier.classify(texts, threshold, batch_size)
        for row, row_text, answer in zip(usable, texts, answers):
            for name, column_name in names.items():
                row[column_name] = answer[name] if row_text.strip() else ''
            if as_json:
                out.write(dumps(row, ensure_ascii=False) + '\n')
            else:
                write_row(writer, row)
            n_cut += answer['truncated']

        n_rows += len(usable)
        rows_per_s = n_rows / (time.perf_counter() - started)
        progress = f'{n_rows:,} rows, {rows_per_s:,.0f} a second'
        print(progress, file=sys.stderr, end=progress_end)

    counts = f'{n_rows:,} rows classified, {n_cut:,} cut as too long, {n_rejected:,} left out'
    print(f'{counts}; {output or "stdout"}', file=sys.stderr)


def free_name(name, taken):
    """The name, with 'predicted_' in front as often as needed to be new."""
    while name in taken:
        name = 'predicted_' + name
    return name


def open_table(out, columns):
    """A csv.DictWriter to the open file out, its header written; a .tsv has tabs and no quotes."""
    if is_tsv():
        writer = csv.DictWriter(
            out, columns, delimiter='\t', quoting=csv.QUOTE_NONE, quotechar=None
        )
    else:
        writer = csv.DictWriter(out, columns)
    write_row(writer, dict(zip(columns, columns)))
    return writer


def write_row(writer, row):
    if is_tsv():
        # without quotes no cell may hold what ends a cell or a line
        blanks = str.maketrans('\t\r\n', '   ')
        row = {name: str(cell).translate(blanks) for name, cell in row.items()}
    writer.writerow(row)


def is_tsv():
    return output.endswith('.tsv')


# -----------------------------------------------------------------------------
# single texts


def classify_texts(classifier):
    """Prints an answer for each text: a JSON object, or one line for people."""
    texts = read_texts()
    while chunk := list(itertools.islice(texts, CHUNK)):
        answers = classifier.classify(chunk, threshold, batch_size)
        for one_text, answer in zip(chunk, answers):
            if json:
                print(dumps({'text': one_text} | answer, ensure_ascii=False))
            else:
                print_answer(one_text, answer)


def read_texts():
    """Yields the text of --text or of its file; else the lines of a pipe; else the examples."""
    if text.startswith('FILE:'):
        path = text.removeprefix('FILE:')
        yield Path(path).read_text(encoding='utf-8-sig', errors='replace').rstrip('\n')
    elif text:
        yield text.rstrip('\n')
    elif stdin_is_pipe():
        with open(0, encoding='utf-8-sig', errors='replace') as lines:
            for line in lines:
                if line.strip():
                    yield line.rstrip('\n')
    else:
        ways = '--text="...", --text=FILE:path, a pipe, --input=rows.csv --output=out.csv'
        print(f'These are examples. To classify your own texts: {ways}', file=sys.stderr)
        yield from EXAMPLES


def stdin_is_pipe():
    """Is there a pipe, a socket or a file at stdin? A terminal or a closed stdin is none."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def print_answer(text, answer):
    """One line for people: label, probability as a bar and a number, runner-up, text."""
    bar = '#' * round(10 * answer['probability'])
    runner_up = answer['runner_up']
    runner_up_probability = answer['probabilities'][runner_up]
    text = ' '.join(text.split())
    if len(text) >= 80:
        text = text[:77] + '...'
    line = f'{answer["label"]:10} {bar:10} {answer["probability"]:.2f}'
    line += f'  (else {runner_up} {runner_up_probability:.2f})  {text}'
    if answer['truncated']:
        line += '  [only a part was read: too long]'
    print(line)


# -----------------------------------------------------------------------------


def main():
    configure(globals())
    check_settings()
    path = find_run()

    # torch comes with this import: a mistyped flag should not wait for it
    from nanosentiment import Classifier

    try:
        classifier = Classifier(str(path), device=device)
    except ValueError as error:
        stop(error)
    print(f'{path}, trained on {classifier.checkpoint["dataset"]}', file=sys.stderr)

    # Programs get UTF-8, people what their terminal can show. A notebook's stdout lacks the method.
    if hasattr(sys.stdout, 'reconfigure'):
        encoding = 'utf-8' if input or json else None
        sys.stdout.reconfigure(encoding=encoding, errors='backslashreplace')
    # When `| head` has read enough, end without a message. Windows has no such signal.
    if hasattr(signal, 'SIGPIPE'):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    if input:
        classify_table(classifier)
    else:
        classify_texts(classifier)


if __name__ == '__main__':
    main()
