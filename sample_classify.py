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
json = False  # one JSON object per text, or per row of input; a .json or .jsonl output has them too
threshold = 0.0  # 0.8: "uncertain" below that; evaluate.py prints the accuracy for each threshold
# system
batch_size = 64
device = 'auto'
# -----------------------------------------------------------------------------

EXAMPLES = (
    'I love it, thank you so much!',
    'It broke after two days and nobody answers my calls. Terrible!',
    'The manual has forty pages.',
    'Not worth the money, very disappointed.',
    'The screen is beautiful, but the battery is a huge disappointment.',
)
# on a terminal the bar is green, yellow or red, as the answer is sure or not
COLORS = ((0.8, '\x1b[32m'), (0.6, '\x1b[33m'), (0.0, '\x1b[31m'))
COLOR_END = '\x1b[0m'
ANSWER_COLUMNS = ('label', 'probability', 'runner_up')  # what a row of a table gets
# How many texts or rows are in memory at a time. A pipe is therefore answered after each 2,048 of
# its lines, or at its end.
CHUNK_SIZE = 2048

# -----------------------------------------------------------------------------
# checks, all of them before torch is imported


def check_settings():
    """Stops with one line where the settings contradict each other or are out of range."""
    if batch_size < 1:
        stop(f'batch_size={batch_size} is too small; set it to 1 or more')
    if not 0 <= threshold <= 1:
        stop(f'threshold={threshold} is no probability; set it to a number from 0 to 1')
    if text and input:
        stop('--text and --input are both given; leave out either of them')
    if text and not text.strip():
        stop('--text is blank; write a text, or leave it out')
    if output:
        check_output()
    if input:
        check_readable(input, 'input')
    if text.startswith('FILE:'):
        path = text.removeprefix('FILE:')
        check_readable(path, 'text')
        if not read_text_file(path).strip():
            stop(f'{path} is blank; check --text')


def check_output():
    """Stops if output cannot be written, or if writing it would destroy the input."""
    if not input:
        stop(f'output={output} takes the rows of a table; name that table with --input=')
    if json and output.lower().endswith(('.csv', '.tsv')):
        stop(f'json=True contradicts output={output}; leave out --json, or name a .jsonl file')
    source = Path(input).resolve()
    target = Path(output).resolve()
    if source in (target, Path(part_file()).resolve()):
        stop(f'output={output} would overwrite input={input}; write to another file')
    if target.is_dir():
        stop(f'output={output} is a folder; name a file in it')
    if not os.access(target.parent, os.W_OK):
        stop(f'output={output} lies in a folder that is missing or read-only; name another folder')


def part_file():
    """Where the rows are written; the file is renamed to output only when it is complete."""
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


def find_checkpoint():
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
    text_name = text_column or classifier.checkpoint['recipe']['columns'][0]
    try:
        columns = table_columns(input)
    except ValueError as error:  # its header is broken
        stop(error)
    if not columns:
        remedy = 'save it in UTF-8, with a header and one line for each row'
        if input.lower().endswith('.jsonl'):
            remedy = 'save it in UTF-8, with one JSON object on each line'
        stop(f'{input} has no row that can be read; {remedy}')
    if text_name not in columns:
        choices = ', '.join(columns)
        stop(f'{input}: there is no column {text_name!r}; set --text_column to one of {choices}')
    if output:
        # rename only when complete: an interrupted program leaves an older output as it is
        with open(part_file(), 'w', newline='', encoding='utf-8') as file:
            classify_rows(classifier, text_name, columns, file)
        os.replace(part_file(), output)
    else:
        classify_rows(classifier, text_name, columns, sys.stdout)


def table_columns(path):
    """The names of a table's columns, in order of first appearance; [] if no row can be read."""
    columns = {}  # a dict, because it keeps the order and finds a name at once
    for _, row, reason in read_rows(path):
        if reason:
            continue
        columns.update(dict.fromkeys(row))
        # all rows of a .csv or .tsv have the header's columns; those of a .jsonl may differ
        if not path.lower().endswith('.jsonl'):
            break
    return list(columns)


def classify_rows(classifier, text_name, columns, file):
    """
    Classifies the rows of `input`, a chunk at a time, and writes them to the open file.

    text_name is the column of the texts. A row that cannot be read is reported on stderr and left
    out; a row whose text is blank is written without an answer.
    """
    column_of_answer = {name: free_name(name, columns) for name in ANSWER_COLUMNS}
    blank_answer = dict.fromkeys(column_of_answer.values(), '')
    writer = None
    if output_format() != 'json':
        writer = open_table(file, [*columns, *column_of_answer.values()])

    n_rows, n_rejected, n_cut = 0, 0, 0
    started = time.perf_counter()
    progress_end = '\r' if sys.stderr.isatty() else '\n'
    numbered_rows = read_rows(input)
    while chunk := list(itertools.islice(numbered_rows, CHUNK_SIZE)):
        rows = []
        rows_with_text = []
        for line_number, row, reason in chunk:
            if reason:
                print(f'{input} line {line_number}: {reason}; left out', file=sys.stderr)
                n_rejected += 1
                continue
            rows.append(row)
            if row.get(text_name, '').strip():
                rows_with_text.append(row)

        texts = [row[text_name] for row in rows_with_text]
        for row in rows:
            row.update(blank_answer)
        for row, answer in zip(rows_with_text, classifier.classify(texts, threshold, batch_size)):
            for name, column in column_of_answer.items():
                row[column] = answer[name]
            n_cut += answer['truncated']
        for row in rows:
            write_row(file, writer, row)

        n_rows += len(rows)
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


def output_format():
    """What the rows of a table are written as: 'csv', 'tsv' or 'json'."""
    extension = Path(output).suffix.lower()
    if json or extension in ('.json', '.jsonl'):
        return 'json'
    if extension == '.tsv':
        return 'tsv'
    return 'csv'


def open_table(file, columns):
    """A csv.DictWriter to the open file, its header written; a .tsv has tabs and no quotes."""
    # Lines end with the csv module's \r\n, as RFC 4180 has it, in a .tsv too. Spreadsheets and
    # read_rows take both line ends.
    if output_format() == 'tsv':
        writer = csv.DictWriter(
            file, columns, delimiter='\t', quoting=csv.QUOTE_NONE, quotechar=None
        )
    else:
        writer = csv.DictWriter(file, columns)
    write_row(file, writer, dict(zip(columns, columns)))
    return writer


def write_row(file, writer, row):
    """Writes one row to the open file; writer is its open_table, None for JSON."""
    if writer is None:
        file.write(dumps(row, ensure_ascii=False) + '\n')
        return
    if output_format() == 'tsv':
        # without quotes no cell may hold what ends a cell or a line
        blanks = str.maketrans('\t\r\n', '   ')
        row = {name: str(cell).translate(blanks) for name, cell in row.items()}
    writer.writerow(row)


# -----------------------------------------------------------------------------
# single texts


def classify_texts(classifier):
    """Prints an answer for each text: a JSON object, or one line for people."""
    texts = read_texts()
    while chunk := list(itertools.islice(texts, CHUNK_SIZE)):
        answers = classifier.classify(chunk, threshold, batch_size)
        for content, answer in zip(chunk, answers):
            if json:
                print(dumps({'text': content} | answer, ensure_ascii=False))
            else:
                print_answer(content, answer)


def read_texts():
    """Yields the text of --text or of its file; else the lines of a pipe; else the examples."""
    if text.startswith('FILE:'):
        yield read_text_file(text.removeprefix('FILE:'))
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


def read_text_file(path):
    """All of a file as one text."""
    return Path(path).read_text(encoding='utf-8-sig', errors='replace').rstrip('\n')


def stdin_is_pipe():
    """Is there a pipe, a socket or a file at stdin? A terminal or a closed stdin is none."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def color_bar(bar, probability):
    """The bar, 10 wide; in colour if stdout is a terminal and NO_COLOR is unset."""
    bar = f'{bar:10}'
    if not sys.stdout.isatty() or os.getenv('NO_COLOR'):
        return bar
    for threshold_of_color, color in COLORS:
        if probability >= threshold_of_color:
            return f'{color}{bar}{COLOR_END}'
    return bar


def print_answer(content, answer):
    """One line for people: label, probability as a bar and a number, runner-up, text."""
    bar = '#' * round(10 * answer['probability'])
    runner_up = answer['runner_up']
    runner_up_probability = answer['probabilities'][runner_up]
    excerpt = ' '.join(content.split())
    if len(excerpt) >= 80:
        excerpt = excerpt[:77] + '...'
    bar = color_bar(bar, answer['probability'])
    line = f'{answer["label"]:10} {bar} {answer["probability"]:.2f}'
    line += f'  (else {runner_up} {runner_up_probability:.2f})  {excerpt}'
    if answer['truncated']:
        line += '  [only a part was read: too long]'
    print(line)


# -----------------------------------------------------------------------------
# the program


def main():
    configure(globals())
    check_settings()
    path = find_checkpoint()

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
