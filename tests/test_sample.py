# python -m pytest tests/test_sample.py
# sample_classify.py: a checkpoint alone gives the answers of its training, whatever the way in

import codecs
import csv
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from unittest import mock

import pytest
import torch
from conftest import ROOT, SLOW, run, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare
import sample_classify
from nanosentiment import Classifier
from nanosentiment.answers import csv_cell
from nanosentiment.checkpoint import open_checkpoint
from nanosentiment.fast import predict
from nanosentiment.memmaps import Split
from nanosentiment.metrics import softmax
from nanosentiment.tables import Table


def read_csv(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def read_jsonl(path):
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def write_jsonl(path, rows):
    with open(path, 'w', encoding='utf-8') as f:
        for row in rows:
            f.write(json.dumps(row) + '\n')


def classify(run_folder, *flags, **options):
    """sample_classify.py with the model of a folder."""
    return run('sample_classify.py', f'--out_dir={run_folder}', *flags, **options)


def json_lines(result):
    """What --json=True has printed."""
    return [json.loads(line) for line in result.out.splitlines()]


class FakeClassifier:
    """Answers with the text itself as the label, so that a test sees which answer a row got."""

    labels = ['bad', 'good']
    checkpoint = {'recipe': {'columns': ['body', 'mood']}}

    def classify(self, texts, threshold, batch_size):
        both = {'bad': 0.25, 'good': 0.75}
        common = {'probability': 0.75, 'runner_up': 'bad', 'probabilities': both}
        return [{'label': text, 'truncated': False} | common for text in texts]


def answer_table(path, output, **more):
    """What sample_classify.py does with a table, but in this process and with FakeClassifier."""
    changes = {'input': str(path), 'output': str(output)} | more
    with mock.patch.multiple(sample_classify, **changes):
        table = sample_classify.open_table()
        sample_classify.classify_table(FakeClassifier(), table)


@pytest.fixture(scope='module')
def moved(trained, tmp_path_factory):
    """The checkpoint alone in another folder: no prepared data, vocabulary or config beside it."""
    folder = tmp_path_factory.mktemp('elsewhere')
    shutil.copy(f'{trained.out_dir}/best.pt', folder)
    return str(folder)


# -----------------------------------------------------------------------------
# the same answers as in training and evaluation


def test_a_table_gets_the_labels_of_the_prepared_test_split(trained, moved, tmp_path):
    """
    Another cleaning or vocabulary in use than in training is a common cause of bad figures.
    The rows are classified sorted by length, so their order is checked, too.
    """
    settings = dict(arg.removeprefix('--').split('=', 1) for arg in trained.args)
    raw = settings['test_file']
    out = tmp_path / 'out.csv'
    result = classify(moved, f'--input={raw}', f'--output={out}', cwd=tmp_path)

    model, _, checkpoint = open_checkpoint(moved)
    folder = prepare.prepare(checkpoint['settings'])
    logits = predict(model, Split(folder, 'test', 32, 'last'))
    probabilities = softmax(logits / checkpoint['temperature'])

    rows = read_csv(out)
    assert len(rows) == 60
    assert '60 rows' in result.err
    for row, original, p in zip(rows, read_csv(raw), probabilities):
        best, second = p.argsort()[::-1][:2]
        assert {column: row[column] for column in original} == original, 'all columns are kept'
        assert row['label'] == checkpoint['labels'][best]
        assert row['runner_up'] == checkpoint['labels'][second]
        assert float(row['probability']) == pytest.approx(p[best], abs=1e-4)


def test_python_gives_the_same_answers_as_the_script(moved, tmp_path):
    """`from nanosentiment import Classifier` is the way in from other programs."""
    texts = ['late and awful', 'lovely, thanks', 'a purple moon', 'the parcel came ' * 30]
    write_jsonl(tmp_path / 'rows.jsonl', [{'body': text} for text in texts])
    piped = classify(moved, '--json=True', '--device=cpu', stdin=None, input='\n'.join(texts))
    from_pipe = json_lines(piped)
    table = classify(moved, '--json=True', '--device=cpu', f'--input={tmp_path}/rows.jsonl')
    from_table = json_lines(table)

    answers = Classifier(moved, device='cpu').classify(texts)
    assert [answer['label'] for answer in answers[:3]] == ['bad', 'good', 'odd']
    assert answers[3]['truncated']
    for text, answer, pipe_row, table_row in zip(texts, answers, from_pipe, from_table):
        assert pipe_row == {'text': text} | answer
        assert table_row['label'] == answer['label']
        assert table_row['probability'] == answer['probability']


def test_below_the_threshold_the_answer_is_uncertain(moved, tmp_path):
    checkpoint = torch.load(f'{moved}/best.pt', weights_only=True)
    # the tiny model is so sure of its tiny corpus that probabilities are rounded to 1
    checkpoint['temperature'] = 20.0
    torch.save(checkpoint, tmp_path / 'best.pt')
    flags = ['--text=late and awful', '--json=True']
    sure = json.loads(classify(tmp_path, *flags, '--threshold=0').out)
    unsure = json.loads(classify(tmp_path, *flags, '--threshold=1').out)
    assert 1 / 3 < sure['probability'] < 1
    assert sure['label'] == 'bad'
    assert unsure == sure | {'label': 'uncertain'}


def test_a_model_trained_in_float32_is_used_in_float32(moved, monkeypatch):
    """
    A processor with bfloat16 instructions would otherwise give other probabilities than those
    that evaluate.py has judged.
    """
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'avx512_bf16': True})
    assert Classifier(moved, device='cpu').dtype == torch.float32


def test_torch_is_imported_only_when_it_is_needed(tmp_path):
    """It takes seconds, for which neither an import nor a mistyped flag should wait."""
    code = 'import sys, nanosentiment; assert "torch" not in sys.modules'
    run(['-c', code], cwd=ROOT)
    # a torch that cannot be imported shows whether somebody tried
    (tmp_path / 'torch.py').write_text('raise ImportError("torch was imported")')
    without_torch = {'PYTHONPATH': str(tmp_path)}
    result = run('sample_classify.py', '--thresold=0.5', env=without_torch, status=2)
    assert 'threshold' in result.err
    result = run('sample_classify.py', '--out_dir=nowhere', env=without_torch, status=2)
    assert 'no trained model' in result.err
    (tmp_path / 'best.pt').write_text('not read')
    (tmp_path / 'rows.xlsx').write_text('PK')
    flags = [f'--out_dir={tmp_path}', f'--input={tmp_path}/rows.xlsx']
    result = run('sample_classify.py', *flags, env=without_torch, status=2)
    assert 'spreadsheet' in result.err


# -----------------------------------------------------------------------------
# texts, files and pipes


def test_every_way_in_gives_the_same_answer(moved, tmp_path):
    text = 'the parcel was late and broken and awful'
    second_text = 'the parcel came on a lovely day and thanks it was lovely'
    (tmp_path / 'letter.txt').write_text(text, encoding='utf-8')
    lines = f'{text}\n\n{second_text}\n'
    from_flag = json_lines(classify(moved, '--json=True', f'--text={text}'))
    from_file = json_lines(classify(moved, '--json=True', f'--text=FILE:{tmp_path}/letter.txt'))
    from_pipe = json_lines(classify(moved, '--json=True', stdin=None, input=lines))
    assert from_flag == from_file == from_pipe[:1]

    answer = from_flag[0]
    assert answer['text'] == text
    assert answer['label'] == 'bad'
    assert from_pipe[2]['label'] == 'good'
    assert not answer['truncated']
    assert sum(answer['probabilities'].values()) == pytest.approx(1, abs=1e-3)


def test_without_a_text_it_shows_examples_and_how_to_go_on(moved):
    result = classify(moved)
    assert len(result.out.splitlines()) == 5
    assert '--text=' in result.err
    assert '--input=' in result.err
    assert 'trained on rows' in result.err


def test_an_empty_pipe_gets_no_answer(moved):
    """A scheduled job whose input was empty got the labels of the five examples."""
    assert classify(moved, '--json=True', stdin=None, input='').out == ''


def test_a_pipe_is_answered_when_it_pauses(moved):
    """A program that asks and waits for its answer got none until it had asked 2,048 times."""
    command = [sys.executable, f'{ROOT}/sample_classify.py', f'--out_dir={moved}', '--json=True']
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL}
    process = subprocess.Popen(command, text=True, **pipes)
    killer = threading.Timer(60 * SLOW, process.kill)  # else a missing answer would hang the tests
    killer.start()
    for text in ('late and awful', 'lovely, thanks'):
        process.stdin.write(f'{text}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())['text'] == text
    process.communicate()
    killer.cancel()


def test_a_blank_line_has_an_answer_without_a_label(moved):
    """`paste texts.txt answers.txt` would else put answers beside other texts."""
    texts = 'late and awful\n\n  \nlovely, thanks'
    result = classify(moved, '--json=True', stdin=None, input=texts)
    answers = json_lines(result)
    assert [answer['text'] for answer in answers] == texts.split('\n')
    assert [answer['label'] != '' for answer in answers] == [True, False, False, True]
    assert answers[1].keys() == answers[0].keys()
    assert len(classify(moved, stdin=None, input=texts).out.splitlines()) == 4


def test_a_long_pipe_is_read_in_pieces(moved):
    """Lines and characters that are cut between two pieces come out whole."""
    texts = [f'late ü {i} ' + 'é' * (i % 700) for i in range(6000)]
    assert classify_piped(moved, '\n'.join(texts).encode())[0] == texts


def classify_piped(moved, piped, *flags):
    """The texts of a pipe of bytes as the script read them, and what it said on stderr."""
    command = [sys.executable, f'{ROOT}/sample_classify.py', f'--out_dir={moved}', '--json=True']
    done = subprocess.run([*command, *flags], input=piped, capture_output=True, timeout=120 * SLOW)
    assert done.returncode == 0, done.stderr
    texts = [json.loads(line)['text'] for line in done.stdout.splitlines()]
    return texts, done.stderr.decode()


def test_a_pipe_of_broken_utf8_is_read_with_replacements(moved):
    """A wrong encoding changes what is classified, so it is said: once, with the remedy."""
    piped = b'late \xe9t\xe9\nawful \xe9t\xe9\n'
    texts, err = classify_piped(moved, piped)
    assert texts == ['late \ufffdt\ufffd', 'awful \ufffdt\ufffd']
    assert err.count('--encoding') == 1
    texts, err = classify_piped(moved, piped, '--encoding=cp1252')
    assert texts == ['late \xe9t\xe9', 'awful \xe9t\xe9']
    assert '--encoding' not in err


def test_marks_and_line_ends_of_windows_are_no_part_of_a_text(moved):
    """`cat` leaves a byte order mark wherever a file began; PowerShell writes UTF-16."""
    piped = codecs.BOM_UTF8 + b'late\r\n' + codecs.BOM_UTF8 + 'été\r\n'.encode()
    assert classify_piped(moved, piped)[0] == ['late', 'été']
    assert classify_piped(moved, 'late\r\nété\r\n'.encode('utf-16'))[0] == ['late', 'été']


def test_a_socket_is_a_pipe(moved):
    """Other programs connect stdin to one; they got the answers to the examples."""
    writing_end, reading_end = socket.socketpair()
    writing_end.sendall(b'late and awful\n')
    writing_end.shutdown(socket.SHUT_WR)
    assert 'late and awful' in classify(moved, stdin=reading_end).out


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
def test_a_text_file_may_have_any_encoding(moved, tmp_path, encoding):
    text = 'Späte Lieferung,\nsehr ärgerlich'
    (tmp_path / 'letter.txt').write_bytes(text.replace('\n', '\r\n').encode(encoding))
    flags = [f'--text=FILE:{tmp_path}/letter.txt', '--json=True']
    result = classify(moved, *flags, encoding='utf-8')
    assert json_lines(result)[0]['text'] == text
    assert ('cp1252' in result.err) == (encoding == 'cp1252')


def test_bytes_that_are_no_text_on_the_command_line_are_replaced(moved):
    """Python passes them as surrogates, at which the tokenizer stopped with a traceback."""
    command = [sys.executable, f'{ROOT}/sample_classify.py', f'--out_dir={moved}', '--json=True']
    command.append(b'--text=caf\xe9')
    environment = os.environ | {'PYTHONUTF8': '1'}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120 * SLOW)
    assert json.loads(done.stdout)['text'] == 'caf\ufffd', done.stderr


def test_all_probabilities_are_shown_below_each_other(moved):
    """People see how close the others are; the most probable label is the first."""
    answer, *lines = classify(
        moved, '--text=late and awful', '--probabilities=True'
    ).out.splitlines()
    assert answer.startswith('bad')
    shown = [(line.split()[0], float(line.split()[-1])) for line in lines]
    assert {label for label, _ in shown} == {'bad', 'good', 'odd'}
    assert shown == sorted(shown, key=lambda item: item[1], reverse=True)
    assert sum(probability for _, probability in shown) == pytest.approx(1, abs=1e-3)


def test_windows_read_all_of_a_long_text(moved):
    """The end alone says good, most of the text says bad."""
    text = 'broken late awful ' * 60 + 'lovely great thanks ' * 12
    (cut,) = json_lines(classify(moved, f'--text={text}', '--json=True'))
    (whole,) = json_lines(classify(moved, f'--text={text}', '--json=True', '--windows=True'))
    assert (cut['label'], cut['truncated']) == ('good', True)
    assert (whole['label'], whole['truncated']) == ('bad', False)


def test_a_long_text_is_cut_and_said_so(moved, tmp_path):
    long_text = 'late ' * 500
    assert 'only a part was read' in classify(moved, f'--text={long_text}').out
    (tmp_path / 'rows.csv').write_text(f'body\n{long_text}\nlate\n')
    assert '1 cut as too long' in classify(moved, f'--input={tmp_path}/rows.csv').err


def test_head_may_stop_reading(moved, tmp_path):
    """A pipe holds 64 KB, so more than that is written."""
    write_rows(tmp_path / 'rows.csv', 3000)
    flags = f'--out_dir={moved} --input={tmp_path}/rows.csv --json=True'
    command = f'{sys.executable} {ROOT}/sample_classify.py {flags} | head -n 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120 * SLOW)
    assert json.loads(done.stdout)['label'] in ('good', 'bad', 'odd')
    assert 'Traceback' not in done.stderr


# -----------------------------------------------------------------------------
# which run


def test_before_any_training_one_line_says_what_to_run(tmp_path):
    result = run('sample_classify.py', cwd=tmp_path, status=2)
    assert result.err.count('\n') == 1
    assert 'python train.py config/train_sentiment_scratch.py' in result.err


@pytest.mark.parametrize(
    'flags, newest',
    [
        ([], 'several/seed-2'),
        (['--out_dir=out/several'], 'several/seed-2'),  # as --seeds=5 leaves it
        (['--out_dir=out/alone'], 'alone'),
        (['--out_dir=out/several/seed-1/best.pt'], 'several/seed-1'),
    ],
)
def test_the_newest_run_is_used(moved, tmp_path, flags, newest):
    ages = {'alone': 200, 'several/seed-1': 100, 'several/seed-2': 0}  # in seconds
    for name, age in ages.items():
        folder = tmp_path / 'out' / name
        folder.mkdir(parents=True)
        shutil.copy(f'{moved}/best.pt', folder)
        os.utime(folder / 'best.pt', (2e9 - age, 2e9 - age))
    result = run('sample_classify.py', '--text=late', *flags, cwd=tmp_path)
    assert os.path.join('out', *newest.split('/'), 'best.pt') in result.err


@pytest.mark.parametrize(
    'flags, words',
    [
        ('--text=late --output=out.csv', '--input='),
        ('--text=late --input=rows.csv', 'either'),
        ('--input=rows.csv --output=rows.csv', 'another file'),  # would lose broken rows
        ('--input=rows.csv --output=.', 'folder'),
        ('--input=rows.csv --output=nowhere/out.csv', 'folder'),
        ('--input=nowhere.csv', 'nowhere.csv'),
        ('--input=rows.csv --json=True --output=out.csv', 'json=True'),
        ('--batch_size=0', 'batch_size=0'),
        ('--text=FILE:', 'text'),
        ('--text=FILE:sheet.xlsx', 'spreadsheet'),
        ('--encoding=klingon', 'klingon'),
        ('--input=rows.csv --header=maybe', '--header'),
        ('--input=rows.csv --output=out.xlsx', '.csv'),  # Excel would not open what is written
        ('--input=rows.csv --output=/dev/null', 'ordinary'),  # root would replace it by a file
        ('--input=. --text_column=body', 'file'),
        ('--text=FILE:blank.txt', 'blank'),
        ('--threshold=80', 'threshold=80'),  # would make every answer uncertain
        ('--sort=uncertain', '--input='),
        ('--sort=worst --input=rows.csv', 'uncertain'),
        ('--serve=True --input=rows.csv', 'page'),
        ('--port=70000', 'port=70000'),
    ],
)
def test_a_mistake_costs_one_line_and_no_file(moved, tmp_path, run_here, monkeypatch, flags, words):
    write_rows(tmp_path / 'rows.csv', 5)
    (tmp_path / 'sheet.xlsx').write_text('PK')
    (tmp_path / 'blank.txt').write_text(' \n')
    before = (tmp_path / 'rows.csv').read_bytes()
    monkeypatch.chdir(tmp_path)
    flags = [f'--out_dir={moved}', *flags.split()]
    result = run_here('sample_classify.py', *flags, status=2)
    assert result.err.count('\n') == 1
    assert words in result.err
    assert set(os.listdir(tmp_path)) == {'rows.csv', 'sheet.xlsx', 'blank.txt'}
    assert (tmp_path / 'rows.csv').read_bytes() == before


# -----------------------------------------------------------------------------
# tables: what is read

ROWS = [
    {'id': '007', 'body': 'late, "and" awful'},
    {'id': '8', 'body': 'two\nlines'},
    {'id': '9', 'body': 'für schön'},
]


def table_bytes(name):
    """ROWS as a file of this name, in the form in which some program writes such files."""
    if name.startswith('array'):
        text = json.dumps(ROWS)
    elif name.startswith('wrapped'):
        text = json.dumps({'version': 1, 'data': ROWS})
    elif 'json' in name:
        text = ''.join(json.dumps(row) + '\n' for row in ROWS)
    else:
        delimiter = {'tsv': '\t', 'semicolon': ';'}.get(name.split('.')[0], ',')
        cells = [['id', 'body'], *(row.values() for row in ROWS)]
        quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in cells]
        text = ''.join(delimiter.join(row) + '\r\n' for row in quoted)

    encoding = {'utf16': 'utf-16', 'tsv': 'utf-16', 'cp1252': 'cp1252'}.get(name.split('.')[0])
    content = text.encode(encoding or 'utf-8')
    if name.endswith('.gz'):
        return gzip.compress(content)
    return content


@pytest.mark.parametrize(
    'name',
    [
        'comma.csv',
        'semicolon.csv',
        'tsv.txt.tsv',  # UTF-16 with tabs: "Unicode text" of Excel
        'utf16.csv',
        'cp1252.csv',
        'array.json',
        'wrapped.json',
        'lines.json',
        'lines.ndjson',
        'lines.jsonl.gz',
        'comma.csv.gz',
    ],
)
def test_every_kind_of_file_gives_the_same_answers(tmp_path, name):
    """A file that training takes must not be read otherwise in use."""
    (tmp_path / name).write_bytes(table_bytes(name))
    answer_table(tmp_path / name, tmp_path / 'out.csv')
    rows = read_csv(tmp_path / 'out.csv')
    assert [{'id': row['id'], 'body': row['body']} for row in rows] == ROWS
    assert [row['label'] for row in rows] == [row['body'] for row in ROWS]


def test_what_was_guessed_is_said(tmp_path, capsys):
    (tmp_path / 'rows.csv').write_bytes(table_bytes('cp1252.csv'))
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    assert 'read as cp1252' in capsys.readouterr().err


def test_a_table_may_need_to_be_described(tmp_path):
    """A header that is none, a delimiter that is none elsewhere, letters that are not Western."""
    (tmp_path / 'rows.csv').write_bytes('1:поздно\n2:рано\n'.encode('cp1251'))
    dialect = {'delimiter': ':', 'encoding': 'cp1251', 'header': 'False'}
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv', text_column='1', **dialect)
    assert [row['label'] for row in read_csv(tmp_path / 'out.csv')] == ['поздно', 'рано']


def test_a_text_file_has_a_text_on_each_line(tmp_path):
    """An empty line is a row, too, so that a list of answers has as many lines as the file."""
    (tmp_path / 'texts.txt').write_text('late, and awful\n\nlovely\n')
    answer_table(tmp_path / 'texts.txt', tmp_path / 'out.csv')
    rows = read_csv(tmp_path / 'out.csv')
    assert [row['text'] for row in rows] == ['late, and awful', '', 'lovely']
    assert [row['label'] for row in rows] == ['late, and awful', '', 'lovely']
    assert [row['reason'] for row in rows] == ['', 'no text', '']


def test_a_single_column_is_the_text(tmp_path):
    """Nothing else can be meant, whatever the column of the training data was called."""
    (tmp_path / 'rows.csv').write_text('comment\nlate\n')
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    assert read_csv(tmp_path / 'out.csv')[0]['label'] == 'late'


def test_several_columns_are_joined_as_in_training(tmp_path):
    (tmp_path / 'rows.csv').write_text('id,title,body\n1,Never again,late\n2,,fine\n')
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv', text_column='title,body')
    labels = [row['label'] for row in read_csv(tmp_path / 'out.csv')]
    assert labels == ['Never again\nlate', 'fine']

    classifier = FakeClassifier()
    classifier.checkpoint = {'recipe': {'columns': ['title,body', 'mood']}}
    with mock.patch(f'{__name__}.FakeClassifier', lambda: classifier):
        answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    assert [row['label'] for row in read_csv(tmp_path / 'out.csv')] == labels


@pytest.mark.parametrize(
    'name, rows',
    [('rows.csv', 'label,body\nx,late\n'), ('rows.jsonl', '{"label": "x", "body": "late"}\n')],
)
def test_a_wrong_column_costs_one_line_and_no_file(tmp_path, name, rows):
    (tmp_path / name).write_text(rows, encoding='utf-8')
    with pytest.raises(ValueError, match='set --text_column to one of label, body'):
        answer_table(tmp_path / name, tmp_path / 'out.csv', text_column='words')
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    'name, rows',
    [
        ('rows.csv', 'body\n'.encode('utf-16')),
        ('rows.csv', b'body\n'),
        ('rows.json', b'[]'),
        ('rows.jsonl', b'{"body": \nlate\n'),
    ],
)
def test_a_table_without_rows_overwrites_nothing(tmp_path, name, rows):
    """A header alone, or a file without lines, ended in an empty output and status 0."""
    (tmp_path / name).write_bytes(rows)
    (tmp_path / 'out.csv').write_text('precious')
    with pytest.raises(ValueError, match='has no row') as error:
        answer_table(tmp_path / name, tmp_path / 'out.csv')
    assert 'column' not in str(error.value), 'text_column is not the mistake'
    assert (tmp_path / 'out.csv').read_text() == 'precious'


# -----------------------------------------------------------------------------
# tables: paths


def test_odd_paths_are_paths(moved, tmp_path):
    """The shell leaves the ~ of --input=~/rows.csv to the program, which made a folder called ~."""
    home = tmp_path / 'Jörg Groß'
    home.mkdir()
    shutil.copy(f'{moved}/best.pt', home)
    write_rows(home / '-rows.csv', 3)
    result = run(
        'sample_classify.py',
        *['--out_dir=~', '--input=~/-rows.csv', '--output=-out 你好.csv'],
        env={'HOME': str(home), 'USERPROFILE': str(home)},
        cwd=tmp_path,
    )
    assert '3 of 3 rows' in result.err
    assert len(read_csv(tmp_path / '-out 你好.csv')) == 3


def test_a_read_only_folder_costs_one_line(moved, tmp_path, run_here, monkeypatch):
    """os.access is replaced, because the administrator who runs tests may write anywhere."""
    write_rows(tmp_path / 'rows.csv', 3)
    monkeypatch.setattr(os, 'access', lambda path, mode: mode == os.R_OK)
    flags = [f'--out_dir={moved}', f'--input={tmp_path}/rows.csv', f'--output={tmp_path}/out.csv']
    err = run_here('sample_classify.py', *flags, status=2).err
    assert err.count('\n') == 1
    assert f'{tmp_path} is read-only' in err


@pytest.mark.skipif(sys.platform != 'linux', reason='/proc is of Linux')
def test_a_file_that_cannot_be_written_costs_one_line(moved, tmp_path, run_here):
    """Nobody can make a file in /proc, though the administrator seems to be allowed to."""
    write_rows(tmp_path / 'rows.csv', 3)
    flags = [f'--out_dir={moved}', f'--input={tmp_path}/rows.csv', '--output=/proc/out.csv']
    err = run_here('sample_classify.py', *flags, status=2).err
    assert '/proc' in err.splitlines()[-1]
    assert 'Traceback' not in err


# -----------------------------------------------------------------------------
# tables: what is written


@pytest.mark.parametrize('name', ['out.csv', 'out.tsv', 'out.jsonl', 'out.csv.gz', 'out.NDJSON.gz'])
def test_a_row_without_an_answer_keeps_its_place(tmp_path, name, capsys):
    """Left out, it would shift all others against the file that it came from."""
    rows = 'label,body\nx,late and awful\ny,too,many\n"z,open\nv,  \nw,lovely\n'
    (tmp_path / 'rows.csv').write_text(rows, encoding='utf-8')
    answer_table(tmp_path / 'rows.csv', tmp_path / name)

    written = [row for _, row, _ in Table(tmp_path / name)]
    assert [row['body'] for row in written if row.get('label')] == [
        'late and awful', 'too', '  ', 'lovely',
    ]  # fmt: skip
    assert [row['predicted_label'] for row in written] == ['late and awful', '', '', '', 'lovely']
    reasons = [row['reason'] for row in written]
    assert reasons[0] == reasons[4] == ''
    assert reasons[1] == '3 fields instead of 2'
    assert reasons[2].startswith('broken quoting')
    assert reasons[3] == 'no text'

    err = capsys.readouterr().err
    assert '2 of 5 rows classified' in err
    assert '3 of 5 rows have no answer' in err
    assert 'line 3' in err
    assert err.count('\n') == 2


def test_many_broken_rows_cost_one_line(tmp_path, capsys):
    """One line each would push everything else from the screen. The main reason is told."""
    lines = ['id,body', '1,late', *['2,a,b'] * 100, *['3,'] * 5000]
    (tmp_path / 'rows.csv').write_text('\n'.join(lines))
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    classified, rejected = capsys.readouterr().err.splitlines()
    assert classified.startswith('1 of 5,101 rows classified')
    assert '5,100 of 5,101 rows' in rejected
    assert 'no text (5,000)' in rejected
    assert 'line 3 (3 fields instead of 2)' in rejected
    assert len(read_csv(tmp_path / 'out.csv')) == 5101


def test_the_layout_does_not_depend_on_the_rows(tmp_path):
    """A program that reads the answers must find the same columns in each file."""
    headers = []
    for rows in ['id,body\n1,late\n', 'id,body\n1,\n']:
        (tmp_path / 'rows.csv').write_text(rows)
        answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
        headers.append((tmp_path / 'out.csv').read_text().splitlines()[0])
    assert headers == ['id,body,label,probability,runner_up,reason'] * 2


def test_a_tsv_in_gives_a_tsv_out(moved, tmp_path):
    """With quotes where a cell needs them, as pandas and spreadsheets write and read it."""
    rows = 'id\tbody\n1\t"late ""and""\nawful"\n2\tlovely thanks\n'
    (tmp_path / 'rows.tsv').write_text(rows, encoding='utf-8')
    classify(moved, f'--input={tmp_path}/rows.tsv', f'--output={tmp_path}/out.tsv')
    with open(tmp_path / 'out.tsv', newline='', encoding='utf-8') as f:
        header, first, second = csv.reader(f, 'excel-tab')
    assert header == ['id', 'body', 'label', 'probability', 'runner_up', 'reason']
    assert first[:2] == ['1', 'late "and"\nawful']
    assert second[:3] == ['2', 'lovely thanks', 'good']


def test_values_of_json_stay_what_they_are(tmp_path):
    """An id of 7 must not come back as '7', nor a list as a text."""
    rows = [
        {'id': 7, 'body': 'late', 'score': 0.1, 'tags': ['a', {'b': None}], 'seen': True},
        {'id': 12345678901234567890, 'body': ['late'], 'score': None},
        {'id': '007', 'body': 5},
    ]
    write_jsonl(tmp_path / 'rows.jsonl', rows)
    answer_table(tmp_path / 'rows.jsonl', tmp_path / 'out.jsonl')
    written = read_jsonl(tmp_path / 'out.jsonl')
    for row, original in zip(written, rows, strict=True):
        assert {name: row[name] for name in original} == original
        assert [type(row[name]) for name in original] == [type(x) for x in original.values()]
        assert list(row)[len(original) :] == ['label', 'probability', 'runner_up', 'reason']
    assert [row['label'] for row in written] == ['late', '', '5']
    assert [row['probability'] for row in written] == [0.75, None, 0.75]
    assert 'list' in written[1]['reason']

    answer_table(tmp_path / 'rows.jsonl', tmp_path / 'out.csv')
    first, second, third = read_csv(tmp_path / 'out.csv')
    assert first['tags'] == '["a", {"b": null}]'
    assert (first['id'], first['score'], first['seen']) == ('7', '0.1', 'true')
    assert (second['id'], second['score'], second['seen']) == ('12345678901234567890', '', '')
    assert second['probability'] == ''
    assert third['id'] == '007'


def test_cells_that_look_like_formulas_stay(tmp_path):
    """They are the user's own; '-1 in place of -1 would break what comes next."""
    (tmp_path / 'rows.csv').write_text('id,body\n-1,=late\n@x,+fine\n')
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    written = [(row['id'], row['body']) for row in read_csv(tmp_path / 'out.csv')]
    assert written == [('-1', '=late'), ('@x', '+fine')]


@pytest.mark.parametrize('name', ['out.csv', 'out.tsv'])
def test_a_table_may_get_all_probabilities(tmp_path, name):
    """For a threshold of one's own, for ranking, or for joining several models."""
    (tmp_path / 'rows.csv').write_text('body,p(good)\nlate,old\n,old\n')
    answer_table(tmp_path / 'rows.csv', tmp_path / name, probabilities=True)
    answered, blank = [row for _, row, _ in Table(tmp_path / name)]
    answer_columns = ['label', 'probability', 'runner_up', 'p(bad)', 'predicted_p(good)', 'reason']
    assert list(answered) == ['body', 'p(good)', *answer_columns]
    assert [answered[column] for column in answer_columns[3:5]] == ['0.25', '0.75']
    assert [blank[column] for column in answer_columns[3:5]] == ['', '']
    assert answered['p(good)'] == blank['p(good)'] == 'old'


def test_json_may_have_all_probabilities(moved, tmp_path):
    write_jsonl(tmp_path / 'rows.jsonl', [{'body': 'late and awful'}, {'body': ''}])
    flags = [f'--input={tmp_path}/rows.jsonl', '--json=True', '--probabilities=True']
    answered, blank = json_lines(classify(moved, *flags))
    assert set(answered['probabilities']) == {'bad', 'good', 'odd'}
    assert max(answered['probabilities'].values()) == answered['probability']
    assert blank['probabilities'] is None


def test_too_many_keys_for_a_table_are_refused(tmp_path):
    """With another key in each row the table grows with the square of the rows: 27 s for 300 kB."""
    write_jsonl(tmp_path / 'rows.jsonl', [{'body': 'late', f'key {i}': i} for i in range(1200)])
    with pytest.raises(ValueError, match='1,201 different keys'):
        answer_table(tmp_path / 'rows.jsonl', tmp_path / 'out.csv')
    answer_table(tmp_path / 'rows.jsonl', tmp_path / 'out.jsonl')
    assert len((tmp_path / 'out.jsonl').read_text().splitlines()) == 1200


def test_nan_of_pandas_is_written_as_null(tmp_path):
    """No other program reads NaN as JSON."""
    (tmp_path / 'rows.jsonl').write_text('{"body": "late", "stars": NaN, "all": [1, Infinity]}\n')
    answer_table(tmp_path / 'rows.jsonl', tmp_path / 'out.jsonl')
    row = json.loads((tmp_path / 'out.jsonl').read_text())
    assert (row['stars'], row['all']) == (None, [1, None])


def test_a_deep_value_costs_nothing(tmp_path):
    deep = '[' * 600 + ']' * 600
    (tmp_path / 'rows.jsonl').write_text(f'{{"body": "late", "deep": {deep}, "x": NaN}}\n')
    answer_table(tmp_path / 'rows.jsonl', tmp_path / 'out.jsonl')
    assert f'"deep": {deep}, "x": null' in (tmp_path / 'out.jsonl').read_text()


@pytest.mark.parametrize('read, extension', [(read_csv, 'csv'), (read_jsonl, 'jsonl')])
def test_keys_that_the_first_row_lacks_are_kept(tmp_path, read, extension):
    """The rows of a .jsonl may differ, and one may have a label of its own."""
    rows = [{'body': 'late and awful'}, {'body': 'lovely', 'label': 'mine', 'from': 'Ann'}]
    write_jsonl(tmp_path / 'rows.jsonl', rows)
    out = tmp_path / f'out.{extension}'
    answer_table(tmp_path / 'rows.jsonl', out)
    first, second = read(out)
    assert first.get('label', '') == ''
    assert first['predicted_label'] == 'late and awful'
    assert (second['label'], second['from']) == ('mine', 'Ann')
    assert second['predicted_label'] == 'lovely'


def test_a_key_that_comes_after_the_first_chunk_is_kept(tmp_path):
    """Rows are written 2,048 at a time, but the header must know the columns of all of them."""
    rows = [{'body': 'late'}] * 2100 + [{'label': 'mine', 'body': 'lovely'}, {'from': 'Ann'}]
    write_jsonl(tmp_path / 'rows.jsonl', rows)
    answer_table(tmp_path / 'rows.jsonl', tmp_path / 'out.csv')
    first, *_, last, without_text = read_csv(tmp_path / 'out.csv')
    assert list(first)[:4] == ['body', 'label', 'from', 'predicted_label']
    assert (without_text['from'], without_text['predicted_label']) == ('Ann', '')
    assert first['label'] == ''
    assert last['label'] == 'mine'
    assert last['predicted_label'] == 'lovely'


def test_a_column_that_exists_is_not_overwritten(tmp_path):
    rows = 'label,body,predicted_label,body,reason\nx,late,mine,last,why\n'
    (tmp_path / 'rows.csv').write_text(rows, encoding='utf-8')
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    (row,) = read_csv(tmp_path / 'out.csv')
    columns = ['label', 'body', 'predicted_label', 'body.3', 'reason', 'predicted_predicted_label']
    assert list(row)[:6] == columns
    assert list(row.values())[:6] == ['x', 'late', 'mine', 'last', 'why', 'late']
    assert row['predicted_reason'] == ''


def test_a_row_without_a_text_gets_no_label(moved, tmp_path):
    """It was called bad with a probability of 0.995; training rejects such a row."""
    (tmp_path / 'rows.csv').write_text('id,body\n1,\n2,late and awful\n3,  \n')
    result = classify(moved, f'--input={tmp_path}/rows.csv')
    blank, labelled, spaces = csv.DictReader(result.out.splitlines())
    for row in (blank, spaces):
        assert (row['label'], row['probability'], row['runner_up']) == ('', '', '')
        assert row['reason'] == 'no text'
    assert labelled['label'] == 'bad'
    assert labelled['probability'] != ''


def test_a_table_may_have_no_text_at_all(moved, tmp_path):
    """Its rows come back all the same, and the model is asked nothing."""
    (tmp_path / 'rows.csv').write_text('id,body\n1,\n2,\n')
    result = classify(moved, f'--input={tmp_path}/rows.csv')
    assert [row['id'] for row in csv.DictReader(result.out.splitlines())] == ['1', '2']
    assert '2 of 2 rows have no answer' in result.err


# -----------------------------------------------------------------------------
# tables: any cell, and any bytes

CELLS = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=8)
# what ends a cell or a line somewhere, or looks like a number, a formula or a quote
NASTY_CELLS = st.text('ab01,;|\t\r\n"\\\'= -@\u2028\x85\ufeff', max_size=8)
NAMES = st.sampled_from(['id', 'label', 'a,b', 'say "x"', 'two\nlines', 'größe', 'p(bad)', 'x\ty'])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | CELLS | NASTY_CELLS,
    lambda values: st.lists(values, max_size=2) | st.dictionaries(CELLS, values, max_size=2),
    max_leaves=4,
)  # fmt: skip
OUTPUTS = st.sampled_from(['out.csv', 'out.tsv', 'out.json', 'out.jsonl', 'out.csv.gz'])


@st.composite
def tables(draw):
    """The names of the columns, one of them 'body', and the cells of 1 to 4 rows."""
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    names.insert(draw(st.integers(0, len(names))), 'body')
    row = st.tuples(*[CELLS | NASTY_CELLS] * len(names))
    return names, draw(st.lists(row, min_size=1, max_size=4))


@given(tables(), OUTPUTS, st.sampled_from(',;\t|'))
@settings(max_examples=200, deadline=None)
def test_all_cells_come_back_as_they_were(table, output, delimiter):
    """Whatever is in them, in every format, with the dialect of the input given."""
    names, rows = table
    with tempfile.TemporaryDirectory() as folder:
        with open(f'{folder}/rows.csv', 'w', newline='', encoding='utf-8') as f:
            csv.writer(f, delimiter=delimiter).writerows([names, *rows])
        dialect = {'delimiter': delimiter, 'encoding': 'utf-8', 'header': 'True'}
        answer_table(f'{folder}/rows.csv', f'{folder}/{output}', text_column='body', **dialect)
        written = [row for _, row, _ in Table(f'{folder}/{output}')]

    for row, cells in zip(written, rows, strict=True):
        *copied, label, _, _, reason = row.values()
        text = cells[names.index('body')].strip()
        assert list(row)[: len(names)] == names
        assert copied == list(cells)
        assert label == text
        assert reason == ('' if text else 'no text')


@given(st.lists(st.dictionaries(NAMES | st.just('body'), VALUES), min_size=1, max_size=4), OUTPUTS)
@settings(max_examples=200, deadline=None)
def test_all_values_of_json_come_back_as_they_were(rows, output):
    """Equal and of the same type in JSON; in CSV as the texts that Table makes of them."""
    rows.append({'body': 'the last'})  # without any text column there is nothing to classify
    with tempfile.TemporaryDirectory() as folder:
        write_jsonl(f'{folder}/rows.jsonl', rows)
        answer_table(f'{folder}/rows.jsonl', f'{folder}/{output}', text_column='body')
        written = [row for _, row, _ in Table(f'{folder}/{output}')]

    for row, original in zip(written, rows, strict=True):
        if 'json' in output:
            assert json.dumps({name: row[name] for name in original}) == json.dumps(original)
        else:
            expected = {name: csv_cell(original.get(name)) for name in original}
            assert {name: row[name] for name in original} == expected
    assert row['label' if 'predicted_label' not in row else 'predicted_label'] == 'the last'


@given(st.binary(max_size=60) | st.text('ab,"\n\r\t;{}[]:\\\0é').map(str.encode), OUTPUTS)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_as_many_rows_or_one_line(content, output):
    """No traceback, and no row less or more than Table has read."""
    name = 'rows.csv'
    with tempfile.TemporaryDirectory() as folder:
        with open(f'{folder}/{name}', 'wb') as f:
            f.write(b'id,body\n1,x\n' + content)
        try:
            n_rows = sum(1 for _ in Table(f'{folder}/{name}'))
            answer_table(f'{folder}/{name}', f'{folder}/{output}')
        except ValueError:
            return
        assert sum(1 for _ in Table(f'{folder}/{output}')) == n_rows


# -----------------------------------------------------------------------------
# progress


def test_a_log_gets_no_line_for_each_chunk(tmp_path, capsys, monkeypatch):
    """A line per 2,048 rows made 2,400 lines for 5,000,000 of them. A minute is a good interval."""
    (tmp_path / 'rows.csv').write_text('body\n' + 'late\n' * 5000)
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    assert 'a second' not in capsys.readouterr().err
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv', PROGRESS_INTERVAL=0)
    assert capsys.readouterr().err.count('a second\n') == 2

    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    answer_table(tmp_path / 'rows.csv', tmp_path / 'out.csv')
    first_line = capsys.readouterr().err.split('\n')[0]
    assert first_line.count('a second') == 2, 'the same line on a terminal, each time anew'
    assert first_line.count('\r') == 2


# -----------------------------------------------------------------------------
# what is written in which encoding


def test_tables_are_utf8_whatever_the_terminal(moved, tmp_path):
    (tmp_path / 'rows.csv').write_text('body\nlate 你好\n', encoding='utf-8')
    western = {'PYTHONIOENCODING': 'cp1252'}
    result = classify(moved, f'--input={tmp_path}/rows.csv', env=western, encoding='utf-8')
    assert 'late 你好' in result.out


def test_people_get_what_their_terminal_can_show(moved):
    western = {'PYTHONIOENCODING': 'cp1252'}
    result = classify(moved, '--text=late 你好', env=western, encoding='utf-8')
    assert '\\u4f60' in result.out


@pytest.mark.parametrize('flags, name', [(['--json=True'], 'out.txt'), ([], 'out.json')])
def test_json_is_written_if_asked_for_by_flag_or_name(moved, tmp_path, flags, name):
    (tmp_path / 'rows.csv').write_text('body\nlate 你好\n', encoding='utf-8')
    classify(moved, *flags, f'--input={tmp_path}/rows.csv', f'--output={tmp_path}/{name}')
    (row,) = read_jsonl(tmp_path / name)
    assert row['body'] == 'late 你好'


# -----------------------------------------------------------------------------
# why a label, and what to label next


def test_the_words_that_carried_a_label_are_shown(moved):
    result = classify(moved, '--text=the parcel was broken and awful', '--explain=True')
    assert '  for ' in result.out
    answer = classify(moved, '--text=awful parcel', '--explain=True', '--json=True').last
    assert answer['explanation']['pieces'] == ['awful ', 'parcel']
    assert answer['explanation']['label'] == answer['label']


def test_a_terminal_shows_the_weight_of_a_word_by_its_colour(monkeypatch):
    monkeypatch.setattr(sample_classify, 'has_colors', lambda: True)
    pieces = [sample_classify.color_piece('late ', weight, 2.0) for weight in (2, 0.5, 0.1, -2)]
    assert len(set(pieces)) == 4
    assert pieces[2] == 'late ', 'a word that hardly counts has no colour'
    assert all('late' in piece for piece in pieces)
    assert sample_classify.color_piece('a\x1b[31m', 1, 1).count('\x1b') == 3, 'ours alone'


def test_a_table_gets_the_words_that_carried_each_label(moved, tmp_path):
    (tmp_path / 'rows.csv').write_text('body\nbroken and awful\n')
    flags = [f'--input={tmp_path}/rows.csv', '--explain=True']
    classify(moved, *flags, f'--output={tmp_path}/out.csv')
    classify(moved, *flags, f'--output={tmp_path}/out.jsonl')
    [row] = read_csv(tmp_path / 'out.csv')
    assert set(row['because'].split('; ')) <= {'broken', 'and', 'awful'}
    [row] = read_jsonl(tmp_path / 'out.jsonl')
    assert row['explanation']['pieces'] == ['broken ', 'and ', 'awful']


def test_the_least_sure_rows_come_first_if_asked_for(moved, tmp_path):
    texts = ['lovely great thanks', 'in this box', 'broken late awful', '', 'lovely and broken']
    lines = [f'{i},{content}\n' for i, content in enumerate(texts)]
    (tmp_path / 'rows.csv').write_text('id,body\n' + ''.join(lines))
    flags = [f'--input={tmp_path}/rows.csv', f'--output={tmp_path}/out.csv', '--probabilities=True']
    classify(moved, *flags, '--sort=uncertain')
    rows = read_csv(tmp_path / 'out.csv')
    assert sorted(row['id'] for row in rows) == list('01234')
    assert rows[-1]['reason'] == 'no text'
    margins = []
    for row in rows[:-1]:
        all_probabilities = sorted(float(row[name]) for name in row if name.startswith('p('))
        margins.append(all_probabilities[-1] - all_probabilities[-2])
    assert margins == sorted(margins)
