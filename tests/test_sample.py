# python -m pytest tests/test_sample.py
# sample_classify.py: a checkpoint alone gives the answers of its training, whatever the way in

import csv
import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SLOW, run, write_rows

import prepare
from nanosentiment import Classifier
from nanosentiment.checkpoint import open_checkpoint
from nanosentiment.fast import predict
from nanosentiment.memmaps import Split
from nanosentiment.metrics import softmax


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
    assert len(from_pipe) == 2, 'a blank line is no text'

    answer = from_flag[0]
    assert answer['text'] == text
    assert answer['label'] == 'bad'
    assert from_pipe[1]['label'] == 'good'
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


def test_a_pipe_of_broken_utf8_is_read_with_replacements(moved):
    command = [sys.executable, f'{ROOT}/sample_classify.py', f'--out_dir={moved}', '--json=True']
    piped = b'\xef\xbb\xbflate \xe9t\xe9\n'
    done = subprocess.run(command, input=piped, capture_output=True, timeout=120 * SLOW)
    assert json.loads(done.stdout)['text'] == 'late \ufffdt\ufffd', done.stderr


def test_a_socket_is_a_pipe(moved):
    """Other programs connect stdin to one; they got the answers to the examples."""
    writing_end, reading_end = socket.socketpair()
    writing_end.sendall(b'late and awful\n')
    writing_end.shutdown(socket.SHUT_WR)
    assert 'late and awful' in classify(moved, stdin=reading_end).out


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
        ('--text=FILE:letter.txt', 'UTF-8'),  # UTF-16, as PowerShell writes it
        ('--text=FILE:blank.txt', 'blank'),
        ('--threshold=80', 'threshold=80'),  # would make every answer uncertain
    ],
)
def test_a_mistake_costs_one_line_and_no_file(moved, tmp_path, flags, words):
    write_rows(tmp_path / 'rows.csv', 5)
    (tmp_path / 'letter.txt').write_text('late and awful', encoding='utf-16')
    (tmp_path / 'blank.txt').write_text(' \n')
    before = (tmp_path / 'rows.csv').read_bytes()
    result = classify(moved, *flags.split(), cwd=tmp_path, status=2)
    assert result.err.count('\n') == 1
    assert words in result.err
    assert set(os.listdir(tmp_path)) == {'rows.csv', 'letter.txt', 'blank.txt'}
    assert (tmp_path / 'rows.csv').read_bytes() == before


# -----------------------------------------------------------------------------
# tables


def test_a_tsv_in_gives_a_tsv_out(moved, tmp_path):
    rows = 'id\tbody\n1\tlate "and" awful\n2\tlovely thanks\n'
    (tmp_path / 'rows.tsv').write_text(rows, encoding='utf-8')
    out = tmp_path / 'out.tsv'
    classify(moved, f'--input={tmp_path}/rows.tsv', f'--output={out}')
    lines = [line.split('\t') for line in out.read_text(encoding='utf-8').splitlines()]
    assert lines[0] == ['id', 'body', 'label', 'probability', 'runner_up']
    assert lines[1][:2] == ['1', 'late "and" awful'], 'no quotes are added'
    assert lines[2][:3] == ['2', 'lovely thanks', 'good']


def test_a_jsonl_in_gives_a_jsonl_out(moved, tmp_path):
    write_jsonl(tmp_path / 'rows.jsonl', [{'id': '1', 'body': 'late and awful'}])
    out = tmp_path / 'out.jsonl'
    classify(moved, f'--input={tmp_path}/rows.jsonl', f'--output={out}')
    (row,) = read_jsonl(out)
    assert list(row) == ['id', 'body', 'label', 'probability', 'runner_up']
    assert (row['id'], row['body'], row['label']) == ('1', 'late and awful', 'bad')


def test_a_tsv_cell_holds_no_tab_and_no_line_end(moved, tmp_path):
    """There are no quotes in a .tsv, so such a cell would end its column or its row."""
    write_jsonl(tmp_path / 'rows.jsonl', [{'body': 'late\tand\nawful'}])
    out = tmp_path / 'out.tsv'
    classify(moved, f'--input={tmp_path}/rows.jsonl', f'--output={out}')
    header, row = out.read_text(encoding='utf-8').splitlines()
    assert row.split('\t')[:2] == ['late and awful', 'bad']


@pytest.mark.parametrize('read, extension', [(read_csv, 'csv'), (read_jsonl, 'jsonl')])
def test_keys_that_the_first_row_lacks_are_kept(moved, tmp_path, read, extension):
    """The rows of a .jsonl may differ, and one may have a label of its own."""
    rows = [{'body': 'late and awful'}, {'body': 'lovely', 'label': 'mine', 'from': 'Ann'}]
    write_jsonl(tmp_path / 'rows.jsonl', rows)
    out = tmp_path / f'out.{extension}'
    classify(moved, f'--input={tmp_path}/rows.jsonl', f'--output={out}')
    first, second = read(out)
    assert first.get('label', '') == ''
    assert first['predicted_label'] == 'bad'
    assert (second['label'], second['from']) == ('mine', 'Ann')
    assert second['predicted_label'] == 'good'


def test_a_key_that_comes_after_the_first_chunk_is_kept(moved, tmp_path):
    """Rows are written 2,048 at a time, but the header must know the columns of all of them."""
    rows = [{'body': 'late'}] * 2100 + [{'label': 'mine', 'body': 'lovely'}, {'from': 'Ann'}]
    write_jsonl(tmp_path / 'rows.jsonl', rows)
    classify(moved, f'--input={tmp_path}/rows.jsonl', f'--output={tmp_path}/out.csv')
    first, *_, last, without_text = read_csv(tmp_path / 'out.csv')
    assert list(first)[:4] == ['body', 'label', 'from', 'predicted_label']
    assert (without_text['from'], without_text['predicted_label']) == ('Ann', '')
    assert first['label'] == ''
    assert last['label'] == 'mine'
    assert last['predicted_label'] == 'good'


def test_a_column_that_exists_is_not_overwritten(moved, tmp_path):
    rows = 'label,body,predicted_label,body\nx,"late, ""so"" awful",mine,last\n'
    (tmp_path / 'rows.csv').write_text(rows, encoding='utf-8')
    flags = [f'--input={tmp_path}/rows.csv', '--text_column=body']
    classify(moved, *flags, f'--output={tmp_path}/out.tsv')
    header, row = (tmp_path / 'out.tsv').read_text(encoding='utf-8').splitlines()
    columns = ['label', 'body', 'predicted_label', 'body.3', 'predicted_predicted_label']
    assert header.split('\t')[:5] == columns
    assert row.split('\t')[:5] == ['x', 'late, "so" awful', 'mine', 'last', 'bad']


def test_a_broken_row_is_left_out_with_its_line_number(moved, tmp_path):
    rows = 'label,body\nx,late and awful\ny,too,many\nz,lovely thanks\n'
    (tmp_path / 'rows.csv').write_text(rows, encoding='utf-8')
    result = classify(moved, f'--input={tmp_path}/rows.csv')
    assert 'line 3' in result.err
    assert '1 left out' in result.err
    written = list(csv.DictReader(result.out.splitlines()))
    assert [row['label'] for row in written] == ['x', 'z']
    assert [row['predicted_label'] for row in written] == ['bad', 'good']


def test_a_row_without_a_text_gets_no_label(moved, tmp_path):
    """It was called bad with a probability of 0.995; training rejects such a row."""
    (tmp_path / 'rows.csv').write_text('id,body\n1,\n2,late and awful\n3,  \n')
    result = classify(moved, f'--input={tmp_path}/rows.csv')
    blank, labelled, spaces = csv.DictReader(result.out.splitlines())
    for row in (blank, spaces):
        assert (row['label'], row['probability'], row['runner_up']) == ('', '', '')
    assert labelled['label'] == 'bad'
    assert labelled['probability'] != ''


def test_a_wrong_column_costs_one_line_and_no_file(moved, tmp_path):
    (tmp_path / 'rows.csv').write_text('label,body\nx,late\n', encoding='utf-8')
    flags = [f'--input={tmp_path}/rows.csv', f'--output={tmp_path}/out.csv']
    result = classify(moved, *flags, '--text_column=words', status=2)
    assert 'label, body' in result.err
    assert 'text_column' in result.err
    assert 'Traceback' not in result.err
    assert os.listdir(tmp_path) == ['rows.csv']


def test_the_unfinished_output_may_not_be_the_input(moved, tmp_path):
    """Until the output is whole it is named out.csv.part, which may be the very file to read."""
    write_rows(tmp_path / 'out.csv.part', 5)
    before = (tmp_path / 'out.csv.part').read_bytes()
    flags = [f'--input={tmp_path}/out.csv.part', f'--output={tmp_path}/out.csv']
    assert 'another file' in classify(moved, *flags, status=2).err
    assert (tmp_path / 'out.csv.part').read_bytes() == before


@pytest.mark.parametrize('rows', ['body\n'.encode('utf-16'), b'body\n', b'body\rlate\rlovely\r'])
def test_a_table_without_usable_rows_overwrites_nothing(moved, tmp_path, rows):
    """A header alone, or a file without lines, ended in an empty output and status 0."""
    (tmp_path / 'rows.csv').write_bytes(rows)
    (tmp_path / 'out.csv').write_text('precious')
    flags = [f'--input={tmp_path}/rows.csv', f'--output={tmp_path}/out.csv']
    error = classify(moved, *flags, status=2).err
    assert 'in UTF-8' in error
    assert 'column' not in error, 'text_column is not the mistake'
    assert (tmp_path / 'out.csv').read_text() == 'precious'


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
