"""
Texts in, labels and probabilities out, with a model that train.py has trained.

The checkpoint brings its tokenizer, cleaning and labels along, so none of them is given here.

$ python sample_classify.py                             # a few built-in texts, the newest run
$ python sample_classify.py --text="It never arrived."  # or --text=FILE:letter.txt
$ cat texts.txt | python sample_classify.py --json=True
$ python sample_classify.py --input=texts.txt --output=answers.csv
$ python sample_classify.py --input=rows.csv --text_column=title,body --output=answers.csv

A table keeps all its rows, in their order, and all its cells. It gets the columns label,
probability, runner_up and reason: a row that cannot be classified has the reason in place of an
answer. With --probabilities=True it also gets a column p(<label>) for each label.
"""

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import os
import select
import signal
import stat
import sys
import time
from collections import Counter
from json import dumps, loads  # not the module, because json is a setting here
from pathlib import Path

from configurator import configure, print_error, printable, run_script, stop
from nanosentiment.columns import parse_columns, row_text
from nanosentiment.files import open_whole, to_json
from nanosentiment.labels import shorten
from nanosentiment.tables import (
    BYTE_ORDER_MARKS,
    OTHER_FORMATS,
    SURROGATE,
    Table,
    cell_text,
    check_encoding,
    find_encoding,
    find_extension,
    open_text,
    refuse_other_formats,
    report_unreadable,
)

# -----------------------------------------------------------------------------
# model
# '' is ./out; of several runs below a folder, the newest
out_dir = ''  # folder of a run, or a .pt file, or the folder of a Hugging Face classifier
windows = False  # of a text longer than block_size: True reads all, as windows; False cuts it
# texts
text = ''  # one text, or FILE:path; '' reads a pipe, one text per line, or shows the examples
input = ''  # a table (.csv, .tsv, .json, .jsonl, .ndjson) or a .txt with a text per line; or .gz
text_column = ''  # of input, several as 'title,body'; '' is the training data's, or the only one
text_pair_column = ''  # likewise, the second text, of a run that was trained with pairs of texts
delimiter = ''  # of a .csv input: one character or 'tab'; '' finds it out
encoding = ''  # of input, FILE:path or pipe, such as cp1251; '' finds it out, but a pipe is UTF-8
header = 'auto'  # False: the input has no header, so its columns are called 0, 1, 2
# answers
output = ''  # copy of input with answers: .csv, .tsv, .json, .jsonl, or .gz; '' is stdout, as CSV
json = False  # one JSON object per text or row; so do .jsonl, .ndjson and .json outputs
probabilities = False  # of all labels: table columns p(<label>), or lines below an answer
threshold = 0.0  # 0.8: "uncertain" below that; evaluate.py prints the accuracy for each threshold
# system
batch_size = 64
device = 'auto'
# -----------------------------------------------------------------------------

# what --help shows first
FIRST = ('out_dir', 'text', 'input', 'text_column', 'output', 'probabilities')
CHOICES = {'header': ('auto', 'True', 'False')}

EXAMPLES = (
    'I love it, thank you so much!',
    'It broke after two days and nobody answers my calls. Terrible!',
    'The parcel arrived on Tuesday.',
    'Not worth the money, very disappointed.',
    'The screen is beautiful, but the battery is a huge disappointment.',
)
# on a terminal the bar is green, yellow or red, as the answer is sure or not
COLORS = ((0.8, '\x1b[32m'), (0.6, '\x1b[33m'), (0.0, '\x1b[31m'))
COLOR_END = '\x1b[0m'
# what is written by the extension of output; another one is CSV
FORMATS = {
    '.csv': 'csv',
    '.tsv': 'tsv',
    '.tab': 'tsv',
    '.json': 'json',
    '.jsonl': 'json',
    '.ndjson': 'json',
}
CHUNK_SIZE = 2048  # how many texts or rows are in memory at a time
PIPE_BYTES = 1 << 16  # that are read at once, if so many are there
# what is printed for a blank line, so that a list of answers has as many lines as the texts
NO_ANSWER = {
    'text': '',
    'label': '',
    'probability': None,
    'runner_up': '',
    'probabilities': {},
    'truncated': False,
}
# A JSON file with another key in each row would be a table whose size grows with the square of the
# rows.
MAX_COLUMNS = 1000
PROGRESS_INTERVAL = 60  # in seconds, where stderr is no terminal

# -----------------------------------------------------------------------------
# checks, all of them before torch is imported


def check_settings():
    """Stops with one line where the settings contradict each other or are out of range."""
    if batch_size < 1:
        stop(f'batch_size={batch_size} is too small; set it to 1 or more')
    if not 0 <= threshold <= 1:
        stop(f'threshold={threshold} is no probability; set it to a number from 0 to 1')
    check_encoding(encoding)
    if text and input:
        stop('--text and --input are both given; leave out either of them')
    if text and not text.strip():
        stop('--text is blank; write a text, or leave it out')
    if input:
        check_readable(input, 'input')
    if output:
        check_output()


def check_output():
    """Stops if output cannot be written, or if writing it would destroy another file."""
    if not input:
        stop(f'output={output} takes the rows of a table; name that table with --input=')
    extension = find_extension(output)
    if json and FORMATS.get(extension) in ('csv', 'tsv'):
        stop(f'json=True contradicts output={output}; leave out --json, or name a .jsonl file')
    if any(extension in extensions for extensions, *_ in OTHER_FORMATS):
        stop(f'output={output}: {extension} is not written here; name a .csv, .tsv or .jsonl file')

    target = Path(output)
    if Path(input).resolve() == target.resolve():
        stop(f'output={output} would overwrite input={input}; write to another file')
    if target.is_dir():
        stop(f'output={output} is a folder; name a file in it')
    if target.exists() and not target.is_file():  # /dev/null would be replaced by a file
        stop(f'output={output} is no ordinary file; name another, or leave it out for stdout')
    folder = target.absolute().parent
    if not folder.is_dir():
        stop(f'output={output}: there is no folder {folder}; make it, or name another one')
    if not os.access(folder, os.W_OK):
        stop(f'output={output}: the folder {folder} is read-only; name a file in another one')


def check_readable(path, setting):
    """Stops unless path is a file that can be read, with something in it."""
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        stop(f'there is no file {path!r} that can be read; check --{setting}')
    if os.path.getsize(path) == 0:
        stop(f'{path} is empty; check --{setting}')


def find_checkpoint():
    """
    The checkpoint to use: out_dir itself if it is a .pt file or a folder that transformers wrote,
    else the newest one below it.
    """
    if out_dir.endswith('.pt'):
        candidates = [Path(out_dir)]
    elif Path(out_dir, 'config.json').exists() and not Path(out_dir, 'best.pt').exists():
        return Path(out_dir)
    else:
        candidates = Path(out_dir or 'out').rglob('best.pt')
    checkpoints = [path for path in candidates if path.exists()]
    if not checkpoints:
        if os.path.isdir(out_dir):
            from nanosentiment.pretrained import describe_other_files

            found = describe_other_files(out_dir)
            if found:
                stop(found)
        remedy = 'run first: python train.py config/train_sentiment_scratch.py'
        stop(f'there is no trained model in {out_dir or "./out"}; {remedy}')
    return max(checkpoints, key=os.path.getmtime)


# -----------------------------------------------------------------------------
# where the texts come from


def open_table():
    """The Table of `input`. What it has guessed is said on stderr."""
    table = Table(input, delimiter, encoding, header)
    for note in table.notes:
        print_error(f'{input}: {note}')
    return table


def find_texts():
    """Lists of texts: that of --text or of its file; else the lines of a pipe; else examples."""
    if text.startswith('FILE:'):
        return [[read_text_file(os.path.expanduser(text.removeprefix('FILE:')))]]
    if text:
        # bytes that are no characters come from the command line as surrogates
        return [[SURROGATE.sub('\ufffd', text).rstrip('\n')]]
    if stdin_is_pipe():
        return read_pipe()
    ways = '--text="...", --text=FILE:path, a pipe, --input=rows.csv --output=out.csv'
    print(f'These are examples. To classify your own texts: {ways}', file=sys.stderr)
    return [EXAMPLES]


def read_text_file(path):
    """All of a file as one text; its encoding is found out as that of a table is."""
    check_readable(path, 'text')
    refuse_other_formats(path)
    with report_unreadable(path):
        encoding_of_file = encoding
        if not encoding:
            encoding_of_file, note = find_encoding(path)
            if note:
                print_error(f'{path}: {note}')
        with open_text(path, encoding_of_file, newline=None) as file:
            content = SURROGATE.sub('\ufffd', file.read())
    if not content.strip():
        stop(f'{path} is blank; check --text')
    return content.rstrip('\n')


def stdin_is_pipe():
    """Is there a pipe, a socket or a file at stdin? A terminal or a closed stdin is none."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def read_pipe():
    """
    Yields lists of lines from stdin: all that are there, as soon as it pauses. So a program that
    asks and waits for its answer gets it, while a file comes in lists of CHUNK_SIZE.

    Without a byte order mark it is UTF-8. Blank lines count, so that there is an answer to each.
    """
    data = os.read(0, PIPE_BYTES)
    while any(mark != data and mark.startswith(data) for mark in BYTE_ORDER_MARKS):
        more = os.read(0, PIPE_BYTES)  # a mark may be cut
        if not more:
            break
        data += more
    marked = [name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)]
    encoding_of_pipe = encoding or next(iter(marked), 'UTF-8')
    decoder = codecs.getincrementaldecoder(encoding_of_pipe)('replace')
    decoder = io.IncrementalNewlineDecoder(decoder, translate=True)

    has_warned = False
    lines = []  # complete ones
    pieces = []  # of a line whose end is still to come, which may be long
    while True:
        is_end = not data
        first, *others = decoder.decode(data, is_end).split('\n')
        pieces.append(first)
        for piece in others:
            lines.append(''.join(pieces))
            pieces = [piece]
        if is_end and any(pieces):
            lines.append(''.join(pieces))
        if not has_warned and any('\ufffd' in line for line in lines):
            what = f'some characters are lost, as if the pipe were not {encoding_of_pipe}'
            print(f'{what}; set --encoding, e.g. to cp1252', file=sys.stderr)
            has_warned = True
        while len(lines) >= CHUNK_SIZE or (lines and (is_end or not more_is_there())):
            # a mark may also be in the middle, where `cat` has joined two files
            yield [line.lstrip('\ufeff') for line in lines[:CHUNK_SIZE]]
            lines = lines[CHUNK_SIZE:]
        if is_end:
            return
        data = os.read(0, PIPE_BYTES)


def more_is_there():
    """Can more of stdin be read without waiting? Windows cannot tell of a pipe, and says no."""
    try:
        return bool(select.select([0], [], [], 0)[0])
    except OSError:
        return False


# -----------------------------------------------------------------------------
# a table


def classify_table(classifier, table):
    """Copies a table to `output` or stdout, with the answers added to its rows."""
    columns = all_columns_of(table)
    if table.is_json and len(columns) > MAX_COLUMNS and output_format() != 'json':
        what = f'{input} has {len(columns):,} different keys, too many for the columns of a table'
        stop(f'{what}; name a .jsonl file with --output=, or set --json=True')
    text_columns, pair_columns = find_text_columns(columns, classifier)
    if output:
        with open_output() as file:
            writer = AnswerWriter(file, columns, classifier.labels)
            classify_rows(classifier, table, text_columns, pair_columns, writer)
    else:
        writer = AnswerWriter(sys.stdout, columns, classifier.labels)
        classify_rows(classifier, table, text_columns, pair_columns, writer)


def all_columns_of(table):
    """The names of all columns of a table. Stops if there is no row with any."""
    columns = dict.fromkeys(table.columns)  # a dict keeps the order, each name once
    if table.is_json:
        # its rows may have different keys, while the header must have all of them
        for _, row, _ in table:
            columns.update(dict.fromkeys(row))

    first_row = next(iter(table), None)
    if first_row is None:
        remedy = 'write one line for each row below a header, or a .txt file with a text per line'
        stop(f'{input} has no rows; {remedy}')
    if not columns:
        line_number, _, reason = first_row
        remedy = 'save it as an array of objects, or with one JSON object on each line'
        stop(f'{input} has no row that can be read (line {line_number}: {reason}); {remedy}')
    return list(columns)


def find_text_columns(columns, classifier):
    """
    The columns that are the text, and those that are the second text of pairs, [] without pairs.

    They are those of the settings, else as in training; without pairs an only column is the text.
    """
    recipe = classifier.checkpoint['recipe']
    pair_column = text_pair_column or recipe.get('text_pair_column', '')
    if text_pair_column and not classifier.has_pairs:
        stop('the run was trained with single texts, not pairs; leave out --text_pair_column')
    if len(columns) == 1 and not text_column and not pair_column:
        return columns, []  # as in a .txt file, whatever the column was called in training
    text_columns = parse_columns(text_column or recipe['columns'][0], columns)
    check_columns(columns, 'text_column', text_columns)
    if not pair_column:
        return text_columns, []
    pair_columns = parse_columns(pair_column, columns)
    check_columns(columns, 'text_pair_column', pair_columns)
    return text_columns, pair_columns


def check_columns(columns, setting, names):
    """Stops if a name that --<setting> gives is none of the columns."""
    for name in names:
        if name not in columns:
            choices = shorten(columns, 20)
            stop(f'{input}: there is no column {name!r}; set --{setting} to one of {choices}')


def classify_rows(classifier, table, text_columns, pair_columns, writer):
    """
    Classifies the rows of a table, a chunk at a time, and writes them all.

    A row without an answer has a reason, and costs no line on stderr of its own.
    """
    n_rows, n_cut = 0, 0
    n_rows_of_reason = Counter()
    first_reason = ''
    progress = Progress()
    numbered_rows = iter(table)
    while chunk := list(itertools.islice(numbered_rows, CHUNK_SIZE)):
        rows_with_reasons = []
        texts = []  # of the rows without a reason
        for line_number, row, reason in chunk:
            if not reason:
                content, reason = row_text(row, text_columns, pair_columns)
            if reason:
                # 'broken quoting: ...' and the like are many; the kind is what matters
                n_rows_of_reason[reason.partition(':')[0]] += 1
                first_reason = first_reason or f'line {line_number} ({reason})'
            else:
                texts.append(content)
            rows_with_reasons.append((row, reason))

        answers = iter(classifier.classify(texts, threshold, batch_size))
        for row, reason in rows_with_reasons:
            answer = None
            if not reason:
                answer = next(answers)
                n_cut += answer['truncated']
            writer.write(row, answer, reason)
        n_rows += len(chunk)
        progress.show(n_rows)

    progress.end()
    n_without = n_rows_of_reason.total()
    counts = f'{n_rows - n_without:,} of {n_rows:,} rows classified, {n_cut:,} cut as too long'
    print(f'{counts}; {output or "stdout"}', file=sys.stderr)
    if n_without:
        [(reason, n)] = n_rows_of_reason.most_common(1)
        what = f'{input}: {n_without:,} of {n_rows:,} rows have no answer'
        why = f'most often because of: {reason} ({n:,}); the first is {first_reason}'
        print_error(f'{what}, {why}; see the column {writer.names["reason"]}')


class Progress:
    """How many rows are done, on stderr: a terminal has one line for it, a log one each minute."""

    def __init__(self):
        self.started = time.perf_counter()
        self.last_shown = self.started

    def show(self, n_rows):
        now = time.perf_counter()
        message = f'{n_rows:,} rows, {n_rows / (now - self.started):,.0f} a second'
        if sys.stderr.isatty():
            print(f'\r{message}', end='', file=sys.stderr, flush=True)
        elif now - self.last_shown >= PROGRESS_INTERVAL:
            print(message, file=sys.stderr)
            self.last_shown = now

    def end(self):
        if sys.stderr.isatty():
            print(file=sys.stderr)


# -----------------------------------------------------------------------------
# the rows of a table with their answers


def output_format():
    """What the rows of a table are written as: 'csv', 'tsv' or 'json'."""
    if json:
        return 'json'
    return FORMATS.get(find_extension(output), 'csv')


@contextlib.contextmanager
def open_output():
    """The output for writing text, see open_whole; compressed if it is a .gz."""
    if not output.lower().endswith('.gz'):
        with open_whole(output, newline='', encoding='utf-8') as file:
            yield file
        return
    with (
        open_whole(output, 'wb') as compressed_file,
        gzip.open(compressed_file, 'wt', newline='', encoding='utf-8') as file,
    ):
        yield file


def free_name(name, taken):
    """The name, with 'predicted_' in front as often as needed to be new."""
    while name in taken:
        name = 'predicted_' + name
    return name


class AnswerWriter:
    """
    Writes the rows of a table with their answers to an open file, as output_format says.

    names  {'label': 'predicted_label', ...}: the columns of the answers, by what is in them. Which
           there are depends on the labels and the settings, not on the rows.
    """

    def __init__(self, file, columns, labels):
        self.file = file
        self.format = output_format()
        names = ['label', 'probability', 'runner_up']
        if probabilities and self.format == 'json':
            names.append('probabilities')
        elif probabilities:
            names += [f'p({label})' for label in labels]
        names.append('reason')
        self.names = {name: free_name(name, columns) for name in names}

        self.table = None
        if self.format != 'json':
            # Cells are quoted where needed, in a .tsv too, as spreadsheets and pandas do. Lines end
            # with the csv module's \r\n, as RFC 4180 has it.
            tab_or_comma = '\t' if self.format == 'tsv' else ','
            all_columns = [*columns, *self.names.values()]
            self.table = csv.DictWriter(file, all_columns, delimiter=tab_or_comma)
            self.table.writeheader()

    def write(self, row, answer, reason):
        """Writes one row. Its answer is that of Classifier.classify, or None if it has a reason."""
        if answer is None:
            # null and not '' in JSON, where a column of numbers should have nothing else
            contents = {'label': '', 'runner_up': '', 'reason': reason}
        else:
            contents = answer | {'reason': ''}
            for label, probability in answer['probabilities'].items():
                contents[f'p({label})'] = probability
        row = dict(row)
        for name, column in self.names.items():
            row[column] = contents.get(name)

        if self.table is None:
            self.file.write(json_text(row) + '\n')
        else:
            self.table.writerow({name: csv_cell(value) for name, value in row.items()})


def json_text(value):
    """A value from JSON as JSON. NaN, with which pandas marks an empty cell, becomes null."""
    try:
        return to_json(value, ensure_ascii=False)
    except ValueError:
        value = loads(dumps(value), parse_constant=lambda name: None)
        return to_json(value, ensure_ascii=False)


def csv_cell(value):
    """A value from JSON as the text of a cell: None -> '', True -> 'true', ['a'] -> '["a"]'."""
    content, reason = cell_text(value)
    if reason:  # a list or an object
        return json_text(value)
    return content


# -----------------------------------------------------------------------------
# single texts


def classify_texts(classifier, lists_of_texts):
    """Prints an answer for each text: a JSON object, or one line for people."""
    for texts in lists_of_texts:
        not_blank = [content for content in texts if content.strip()]
        answers = iter(classifier.classify(not_blank, threshold, batch_size))
        for content in texts:
            if content.strip():
                answer = next(answers)
            else:
                answer = NO_ANSWER | {'text': content}
            if json:
                print(to_json(answer, ensure_ascii=False))
                continue
            print_answer(content, answer)
            if probabilities:
                print_probabilities(answer)
        sys.stdout.flush()  # whoever has asked may wait for it


def draw_bar(probability):
    """0.72 -> '#######   '"""
    return f'{"#" * round(10 * probability):10}'


def color_bar(probability):
    """The bar, in colour if stdout is a terminal and NO_COLOR is unset."""
    bar = draw_bar(probability)
    if not sys.stdout.isatty() or os.getenv('NO_COLOR'):
        return bar
    color = next(color for at_least, color in COLORS if probability >= at_least)
    return f'{color}{bar}{COLOR_END}'


def print_answer(content, answer):
    """One line for people: label, probability as a bar and a number, runner-up, text."""
    if not answer['label']:
        print()
        return
    runner_up = answer['runner_up']
    runner_up_probability = answer['probabilities'][runner_up]
    excerpt = printable(' '.join(content.split()))
    if len(excerpt) >= 80:
        excerpt = excerpt[:77] + '...'
    bar = color_bar(answer['probability'])
    line = f'{printable(answer["label"]):10} {bar} {answer["probability"]:.2f}'
    line += f'  (else {printable(runner_up)} {runner_up_probability:.2f})  {excerpt}'
    if answer['truncated']:
        line += '  [only a part was read: too long]'
    print(line)


def print_probabilities(answer):
    """A line for each label, the most probable one first."""
    ordered = sorted(answer['probabilities'].items(), key=lambda item: item[1], reverse=True)
    for label, probability in ordered:
        print(f'  {printable(label):20} {draw_bar(probability)} {probability:.4f}')


# -----------------------------------------------------------------------------
# the program


def prepare_stdout():
    """Programs get UTF-8, people what their terminal can show."""
    # configure has seen to people's terminals; a notebook's stdout lacks the method
    if (input or json) and hasattr(sys.stdout, 'reconfigure'):
        # newline: Windows would make \r\r\n of the csv module's \r\n
        sys.stdout.reconfigure(encoding='utf-8', errors='backslashreplace', newline='')
    # When `| head` has read enough, end without a message. Windows has no such signal.
    if hasattr(signal, 'SIGPIPE'):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def classify():
    """Checks the settings, loads the model and classifies what the settings name."""
    check_settings()
    path = find_checkpoint()
    # before torch is imported, because this is where most mistakes come to light
    if input:
        table = open_table()
    else:
        texts = find_texts()

    # torch comes with this import: a mistyped flag should not wait for it
    from nanosentiment.checkpoint import Classifier, is_run

    classifier = Classifier(str(path), device=device, windows=windows)
    if is_run(str(path)):
        print_error(f'{path}, trained on {classifier.checkpoint["dataset"]}')
    else:
        print_error(f'{path}, labels {shorten(classifier.labels)}')

    prepare_stdout()
    if input:
        classify_table(classifier, table)
    else:
        classify_texts(classifier, texts)


def main():
    global out_dir, input, output
    configure(globals())
    # the shell leaves the ~ of --input=~/rows.csv as it is
    out_dir = os.path.expanduser(out_dir)
    input = os.path.expanduser(input)
    output = os.path.expanduser(output)
    classify()


if __name__ == '__main__':
    run_script(main)
