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

$ python sample_classify.py --text="Not worth the money." --explain=True     # which words did it
$ python sample_classify.py --input=unlabelled.csv --output=next.csv --sort=uncertain
$ python sample_classify.py --serve=True                                     # a page to try it
"""

import codecs
import contextlib
import gzip
import io
import os
import select
import signal
import stat
import sys
import time
from pathlib import Path

from configurator import configure, print_error, printable, run_script, stop
from nanosentiment.answers import (
    CHUNK_SIZE,
    FORMATS,
    NO_ANSWER,
    AnswerCounts,
    AnswerWriter,
    all_columns_of,
    answer_rows,
    check_number_of_columns,
    find_text_columns,
    format_of,
)
from nanosentiment.explain import explain as explain_texts
from nanosentiment.explain import strongest
from nanosentiment.files import open_whole, to_json
from nanosentiment.labels import shorten, shorten_line
from nanosentiment.pairs import show_pair
from nanosentiment.tables import (
    BYTE_ORDER_MARKS,
    OTHER_FORMATS,
    SURROGATE,
    Table,
    check_encoding,
    find_encoding,
    find_extension,
    open_text,
    refuse_other_formats,
    report_unreadable,
)
from nanosentiment.uncertain import least_sure_first

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
explain = False  # which words, or turns of a dialogue, carried the label: each is left out in turn
sort = ''  # of a table, uncertain: what to label next, that is the least sure first
# page
serve = False  # a page on this machine, and on no other, to try the model in a browser
port = 8000  # of the page; 0 takes any that is free
# system
batch_size = 64
device = 'auto'
# -----------------------------------------------------------------------------

# what --help shows first
FIRST = ('out_dir', 'text', 'input', 'text_column', 'output', 'probabilities', 'explain', 'serve')
CHOICES = {'header': ('auto', 'True', 'False'), 'sort': ('', 'uncertain')}

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
# behind the words of --explain: pale and strong, of the 256 colours of a terminal
FOR_SHADES = (194, 114)
AGAINST_SHADES = (224, 210)
LEAST_STRENGTH = 0.15  # of a word that is coloured, compared with the strongest one
PIPE_BYTES = 1 << 16  # that are read at once, if so many are there
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
    if serve:
        check_serve()
    if sort not in ('', 'uncertain'):
        stop(f'sort={sort} is unknown; set it to uncertain, or leave it out')
    if sort and not input:
        stop(f'sort={sort} orders the rows of a table; name that table with --input=')
    if not 0 <= port < 65536:
        stop(f'port={port} is no port; set it to a number from 1024 to 65535, or 0 for any')
    if text and input:
        stop('--text and --input are both given; leave out either of them')
    if text and not text.strip():
        stop('--text is blank; write a text, or leave it out')
    if input:
        check_readable(input, 'input')
    if output:
        check_output()


def check_serve():
    """Stops if a setting is given that the page has no use for."""
    others = {
        'text': text,
        'input': input,
        'output': output,
        'text_column': text_column,
        'text_pair_column': text_pair_column,
        'encoding': encoding,
        'delimiter': delimiter,
        'sort': sort,
        'json': json,
        'probabilities': probabilities,
        'explain': explain,
    }
    for name, value in others.items():
        if value:
            stop(f'the page of --serve takes no --{name}, but asks you; leave it out')


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
# answers


def answer_texts(classifier, texts):
    """An answer for each text, as Classifier.classify gives it; --explain adds what led to it."""
    answers = classifier.classify(texts, threshold, batch_size)
    if explain:
        explanations = explain_texts(classifier, texts, batch_size)
        for answer, explanation in zip(answers, explanations):
            answer['explanation'] = explanation
            explanation['pieces'] = [show_pair(piece) for piece in explanation['pieces']]
            pieces = [shorten_line(piece, 60) for piece, _ in strongest(explanation)]
            answer['because'] = '; '.join(pieces)
    return answers


# -----------------------------------------------------------------------------
# a table


def classify_table(classifier, table):
    """Copies a table to `output` or stdout, with the answers added to its rows."""
    columns = all_columns_of(table)
    check_number_of_columns(table, columns, output_format())
    text_columns, pair_columns = find_text_columns(
        table, columns, classifier, text_column, text_pair_column
    )
    contents = names_of_contents(classifier.labels)
    rows = answer_rows(
        table, text_columns, pair_columns, lambda texts: answer_texts(classifier, texts)
    )
    rows = show_progress(rows)
    if sort == 'uncertain':
        rows = least_sure_first(rows)
    if output:
        with open_output() as file:
            write_rows(rows, AnswerWriter(file, columns, contents, output_format()))
    else:
        write_rows(rows, AnswerWriter(sys.stdout, columns, contents, output_format()))


def names_of_contents(labels):
    """What is added to each row. It depends on the labels and the settings, not on the rows."""
    names = ['label', 'probability', 'runner_up']
    if probabilities and output_format() == 'json':
        names.append('probabilities')
    elif probabilities:
        names += [f'p({label})' for label in labels]
    if explain:
        names.append('because')
    if explain and output_format() == 'json':
        names.append('explanation')
    if sort == 'uncertain':
        names.append('similar_to_line')
    names.append('reason')
    return names


def write_rows(rows, writer):
    """Writes the rows of answer_rows. Those without an answer cost one line on stderr together."""
    counts = AnswerCounts()
    for row in rows:
        counts.add(row)
        writer.write(row)
    print(f'{counts.describe()}; {output or "stdout"}', file=sys.stderr)
    missing = counts.describe_missing(input, writer.names['reason'])
    if missing:
        print_error(missing)


def show_progress(rows):
    """
    Passes rows on, and shows on stderr how many there were: a terminal has one line for that, a log
    one each minute.
    """
    started = time.perf_counter()
    last_shown = started
    is_terminal = sys.stderr.isatty()
    n_rows = 0
    for row in rows:
        yield row
        n_rows += 1
        if n_rows % CHUNK_SIZE > 0:
            continue
        now = time.perf_counter()
        message = f'{n_rows:,} rows, {n_rows / (now - started):,.0f} a second'
        if is_terminal:
            print(f'\r{message}', end='', file=sys.stderr, flush=True)
        elif now - last_shown >= PROGRESS_INTERVAL:
            print(message, file=sys.stderr)
            last_shown = now
    if is_terminal and n_rows >= CHUNK_SIZE:
        print(file=sys.stderr)


def output_format():
    """What the rows of a table are written as: 'csv', 'tsv' or 'json'."""
    if json:
        return 'json'
    return format_of(output)


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


# -----------------------------------------------------------------------------
# single texts


def classify_texts(classifier, lists_of_texts):
    """Prints an answer for each text: a JSON object, or one line for people."""
    no_answer = dict(NO_ANSWER)
    if explain:
        no_answer |= {'explanation': None, 'because': ''}
    for texts in lists_of_texts:
        not_blank = [content for content in texts if content.strip()]
        answers = iter(answer_texts(classifier, not_blank))
        for content in texts:
            if content.strip():
                answer = next(answers)
            else:
                answer = {'text': content} | no_answer
            if json:
                print(to_json(answer, ensure_ascii=False))
                continue
            print_answer(content, answer)
            if probabilities:
                print_probabilities(answer)
            if explain and answer['label']:
                print_explanation(answer['explanation'])
        sys.stdout.flush()  # whoever has asked may wait for it


def draw_bar(probability):
    """0.72 -> '#######   '"""
    return f'{"#" * round(10 * probability):10}'


def has_colors():
    """Is stdout a terminal that may get colours? NO_COLOR is unset then (https://no-color.org)."""
    return sys.stdout.isatty() and not os.getenv('NO_COLOR')


def color_bar(probability):
    """The bar, in colour if stdout has colours."""
    bar = draw_bar(probability)
    if not has_colors():
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
    excerpt = printable(shorten_line(content, 79))
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


def print_explanation(explanation):
    """
    The pieces that speak for and against the label, with their weights; on a terminal with colours
    the whole text before them, the darker the weightier.
    """
    pieces, weights = explanation['pieces'], explanation['weights']
    if has_colors():
        largest = max(map(abs, weights), default=0)
        parts = [color_piece(piece, weight, largest) for piece, weight in zip(pieces, weights)]
        print('  ' + ''.join(parts))
    against = strongest(explanation | {'weights': [-weight for weight in weights]})
    label = printable(explanation['label'])
    print_pieces(f'for {label}', strongest(explanation), '+')
    print_pieces(f'against {label}', against, '-')


def print_pieces(name, pieces, sign):
    """Prints pieces [(text, weight), ...] on one line, if there are any."""
    parts = [f'{printable(shorten_line(text, 60))} {sign}{weight:.2f}' for text, weight in pieces]
    if parts:
        print(f'  {name}: {", ".join(parts)}')


def color_piece(piece, weight, largest):
    """A piece of a text, green if it speaks for the label and red if against, for a terminal."""
    shown = printable(piece.replace('\n', ' '))
    if abs(weight) < LEAST_STRENGTH * largest or largest == 0:
        return shown
    pale, strong = FOR_SHADES if weight > 0 else AGAINST_SHADES
    shade = strong if abs(weight) >= 0.5 * largest else pale
    return f'\x1b[48;5;{shade}m\x1b[38;5;16m{shown}{COLOR_END}'


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
    elif not serve:
        texts = find_texts()

    # torch comes with this import: a mistyped flag should not wait for it
    from nanosentiment.checkpoint import Classifier, is_run

    classifier = Classifier(str(path), device=device, windows=windows)
    if is_run(str(path)):
        print_error(f'{path}, trained on {classifier.checkpoint["dataset"]}')
    else:
        print_error(f'{path}, labels {shorten(classifier.labels)}')

    prepare_stdout()
    if serve:
        from nanosentiment.server import serve as serve_page

        serve_page(classifier, port, threshold, batch_size)
    elif input:
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
