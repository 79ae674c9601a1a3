# python -m pytest tests/test_sample.py
# classifying with a trained checkpoint: the very functions and settings of training, whatever the way in

import csv
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SLOW, run, write_rows

import batches
from batches import predict
from evaluate import open_run
from metrics import softmax
from prepare import Split, prepare


def rows_of(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope='module')
def moved(trained, tmp_path_factory):
    """The checkpoint alone, in another folder: no prepared data, no vocabulary, no config beside it."""
    folder = tmp_path_factory.mktemp('elsewhere')
    shutil.copy(f'{trained.out_dir}/best.pt', folder)
    return str(folder)


def test_a_table_gets_the_labels_that_the_test_split_got(trained, moved, tmp_path):
    """Another cleaning or vocabulary at use than at training was the cause of many bad figures; order must hold, too."""
    settings = dict(arg.removeprefix('--').split('=', 1) for arg in trained.args)
    raw, out = settings['test_file'], tmp_path / 'out.csv'
    result = run('sample_classify.py', f'--out_dir={moved}', f'--input={raw}', f'--output={out}', cwd=tmp_path)
    model, _, checkpoint = open_run(moved)
    folder = prepare(checkpoint['settings'])
    probabilities = softmax(predict(model, Split(folder, 'test', 32, 'last')) / checkpoint['temperature'])
    given, found = rows_of(raw), rows_of(out)
    assert len(found) == 60 and '60 rows' in result.err
    for row, original, p in zip(found, given, probabilities):
        assert {key: row[key] for key in original} == original, 'all columns are kept'
        assert row['label'] == checkpoint['labels'][p.argmax()] and float(row['probability']) == pytest.approx(
            p.max(), abs=1e-4
        )
        assert row['runner_up'] == checkpoint['labels'][p.argsort()[-2]]


def test_what_was_trained_in_float32_is_used_in_float32(moved, monkeypatch, capsys):
    """A processor with bfloat16 instructions would else give other probabilities than evaluate.py judged."""
    seen, args = [], ['sample_classify.py', f'--out_dir={moved}', '--text=late']
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'avx512_bf16': True})
    monkeypatch.setattr(batches, 'predict', lambda *given: seen.append(given[3]) or predict(*given))
    monkeypatch.setattr(sys, 'argv', args)
    runpy.run_path(os.path.join(ROOT, args[0]), run_name='__main__')
    assert seen == [torch.float32] and 'bad' in capsys.readouterr().out


def test_every_way_in_says_the_same(moved, tmp_path):
    text = 'the parcel was late and broken and awful'
    (tmp_path / 'letter.txt').write_text(text, encoding='utf-8')
    flags = [f'--out_dir={moved}', '--json=True']
    ways = [
        run('sample_classify.py', *flags, f'--text={text}'),
        run('sample_classify.py', *flags, f'--text=FILE:{tmp_path}/letter.txt'),
        run(
            'sample_classify.py',
            *flags,
            stdin=None,
            input=f'{text}\n\nthe parcel came on a lovely day and thanks it was lovely\n',
        ),
    ]
    answers = [[json.loads(line) for line in way.out.splitlines()] for way in ways]
    assert answers[0] == answers[1] == answers[2][:1] and len(answers[2]) == 2
    one = answers[0][0]
    assert one['label'] == 'bad' and answers[2][1]['label'] == 'good' and not one['truncated']
    assert sum(one['probabilities'].values()) == pytest.approx(1, abs=1e-3) and one['text'] == text


def test_without_a_text_it_shows_examples_and_how_to_go_on(moved):
    result = run('sample_classify.py', f'--out_dir={moved}')
    assert len(result.out.splitlines()) == 5 and '--text=' in result.err and '--input=' in result.err
    assert 'trained on rows' in result.err


def test_a_pipe_with_nothing_in_it_gets_no_answer_and_one_of_odd_bytes_its_own(moved):
    """A cron job whose input was empty got the labels of five texts that nobody had written."""
    assert run('sample_classify.py', f'--out_dir={moved}', '--json=True', stdin=None, input='').out == ''
    command = [sys.executable, f'{ROOT}/sample_classify.py', f'--out_dir={moved}', '--json=True']
    odd = subprocess.run(command, input=b'\xef\xbb\xbflate \xe9t\xe9\n', capture_output=True, timeout=120 * SLOW)
    assert json.loads(odd.stdout)['text'] == 'late \ufffdt\ufffd', odd.stderr


def test_a_long_text_is_cut_and_said_so(moved, tmp_path):
    out = run('sample_classify.py', f'--out_dir={moved}', '--text=' + 'late ' * 500).out
    assert 'only a part was read' in out
    (tmp_path / 'rows.csv').write_text('body\n' + 'late ' * 500 + '\nlate\n')
    assert '1 cut as too long' in run('sample_classify.py', f'--out_dir={moved}', f'--input={tmp_path}/rows.csv').err


def test_before_any_training_one_line_says_what_to_run(tmp_path):
    result = run('sample_classify.py', cwd=tmp_path, status=2)
    assert result.err.count('\n') == 1 and 'python train.py config/train_sentiment_scratch.py' in result.err


@pytest.mark.parametrize(
    'flags, words',
    [
        ('--text=late --output=out.csv', '--input='),  # was ignored
        ('--text=late --input=rows.csv', 'either'),  # likewise, and the file classified
        ('--input=rows.csv --output=rows.csv', 'another file'),  # would have lost what cannot be read
        ('--input=rows.csv --output=.', 'folder'),
        ('--input=rows.csv --output=nowhere/out.csv', 'folder'),  # this and the next were tracebacks, after the model had come
        ('--batch_size=0', 'batch_size=0'),
        ('--text=FILE:', 'text'),
        ('--text=FILE:letter.txt', 'UTF-8'),  # a PowerShell's UTF-16, which got a label at .99
        ('--threshold=80', 'threshold=80'),  # made every answer uncertain
    ],
)
def test_what_cannot_be_meant_is_one_line_at_once(moved, tmp_path, flags, words):
    write_rows(tmp_path / 'rows.csv', 5)
    (tmp_path / 'letter.txt').write_text('late and awful', encoding='utf-16')
    before = (tmp_path / 'rows.csv').read_bytes()
    result = run('sample_classify.py', f'--out_dir={moved}', *flags.split(), cwd=tmp_path, status=2)
    assert result.err.count('\n') == 1 and words in result.err
    assert set(os.listdir(tmp_path)) == {'rows.csv', 'letter.txt'} and (tmp_path / 'rows.csv').read_bytes() == before


def test_head_may_stop_reading(moved, tmp_path):
    """The first thing one does with many rows; the pipe holds 64 KB, so more than that is written."""
    write_rows(tmp_path / 'rows.csv', 3000)
    flags = f'--out_dir={moved} --input={tmp_path}/rows.csv --json=True'
    command = f'{sys.executable} {ROOT}/sample_classify.py {flags} | head -n 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120 * SLOW)
    assert json.loads(done.stdout)['label'] in ('good', 'bad', 'odd') and 'Traceback' not in done.stderr, done.stderr


def test_the_last_run_is_found(moved, tmp_path):
    """The third command of the README has no arguments; and the folder that --seeds=5 names holds folders."""
    for name, age in (('alone', 200), ('several/seed-1', 100), ('several/seed-2', 0)):
        os.makedirs(tmp_path / 'out' / name)
        shutil.copy(f'{moved}/best.pt', tmp_path / 'out' / name)
        os.utime(tmp_path / 'out' / name / 'best.pt', (2e9 - age, 2e9 - age))
    for flag, want in (('', 'several/seed-2'), ('--out_dir=out/several', 'several/seed-2'), ('--out_dir=out/alone', 'alone')):
        err = run('sample_classify.py', *flag.split(), cwd=tmp_path).err
        assert os.path.join('out', *want.split('/'), 'best.pt') in err


@pytest.mark.parametrize('ending', ['tsv', 'jsonl'])
def test_other_tables_in_and_out(moved, tmp_path, ending):
    write_rows(tmp_path / 'rows.csv', 5)
    rows = rows_of(tmp_path / 'rows.csv')
    with open(tmp_path / f'rows.{ending}', 'w', encoding='utf-8') as f:
        for row in [dict(zip(rows[0], rows[0])), *rows] if ending == 'tsv' else rows:
            f.write(('\t'.join(row.values()) if ending == 'tsv' else json.dumps(row)) + '\n')
    out = tmp_path / f'out.{ending}'
    run('sample_classify.py', f'--out_dir={moved}', f'--input={tmp_path}/rows.{ending}', f'--output={out}')
    lines = out.read_text(encoding='utf-8').splitlines()
    assert len(lines) == 5 + (ending == 'tsv') and all('label' in json.loads(x) for x in lines if ending == 'jsonl')


def test_keys_that_a_first_row_lacks_are_kept(moved, tmp_path):
    """A JSONL's rows may differ, and one may have a label of its own."""
    rows = [{'body': 'late and awful'}, {'body': 'lovely thanks', 'label': 'mine', 'from': 'Ann'}]
    (tmp_path / 'rows.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    for ending in ('csv', 'jsonl'):
        out = tmp_path / f'out.{ending}'
        run('sample_classify.py', f'--out_dir={moved}', f'--input={tmp_path}/rows.jsonl', f'--output={out}')
        found = rows_of(out) if ending == 'csv' else [json.loads(x) for x in out.read_text(encoding='utf-8').splitlines()]
        assert [(row.get('label') or '', row.get('from') or '') for row in found] == [('', ''), ('mine', 'Ann')]
        assert [row['predicted_label'] for row in found] == ['bad', 'good']


def test_a_key_that_comes_late_is_kept(moved, tmp_path):
    """Of a JSONL only the first 2,048 rows were asked for their columns; what came after them was dropped without a word."""
    rows = [{'body': 'late'}] * 2100 + [{'body': 'lovely', 'label': 'mine'}]
    (tmp_path / 'rows.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n')
    run('sample_classify.py', f'--out_dir={moved}', f'--input={tmp_path}/rows.jsonl', f'--output={tmp_path}/out.csv')
    first, *_, last = rows_of(tmp_path / 'out.csv')
    assert (first['label'], last['label'], last['predicted_label']) == ('', 'mine', 'good')


def test_a_table_is_not_written_over_by_its_own_beginning(moved, tmp_path):
    """What is not yet whole lies in out.csv.part, which may be the very file to read."""
    write_rows(tmp_path / 'out.csv.part', 5)
    (tmp_path / 'rows.csv').write_bytes(before := (tmp_path / 'out.csv.part').read_bytes())
    for name, goal, words in (('out.csv.part', 'out.csv', 'another file'), ('rows.csv', 'new.csv', 'text_column')):
        args = f'--out_dir={moved} --input={tmp_path}/{name} --output={tmp_path}/{goal} --text_column=no'
        assert words in run('sample_classify.py', *args.split(), status=2).err
    assert (tmp_path / 'out.csv.part').read_bytes() == before
    assert set(os.listdir(tmp_path)) == {'out.csv.part', 'rows.csv'}, 'a wrong column leaves nothing behind'


def test_programs_get_utf8_and_what_they_ask_for(moved, tmp_path):
    """A terminal of few letters put \\u4f60 into a CSV, and --json=True wrote a CSV where --output was named otherwise."""
    (tmp_path / 'rows.csv').write_text('body\nlate 你好\n', encoding='utf-8')
    flags = [f'--out_dir={moved}', f'--input={tmp_path}/rows.csv']
    poor = {'PYTHONIOENCODING': 'cp1252'}
    assert 'late 你好' in run('sample_classify.py', *flags, env=poor, encoding='utf-8').out
    for more in (['--json=True', f'--output={tmp_path}/out.txt'], [f'--output={tmp_path}/out.json']):
        run('sample_classify.py', *flags, *more)
        assert json.loads((tmp_path / more[-1].rpartition('/')[2]).read_text(encoding='utf-8'))['body'] == 'late 你好'
    said = run('sample_classify.py', flags[0], '--text=late 你好', env=poor, encoding='utf-8').out
    assert '\\u4f60' in said, 'people get what their terminal can show'


@pytest.mark.parametrize('rows', ['body\n'.encode('utf-16'), b'body\n', b'body\rlate\rlovely\r'])
def test_a_table_without_rows_overwrites_nothing(moved, tmp_path, rows):
    """A header alone, or what no line can be read of, ended in an empty file and status 0."""
    (tmp_path / 'rows.csv').write_bytes(rows)
    (tmp_path / 'out.csv').write_text('precious')
    args = f'--out_dir={moved} --input={tmp_path}/rows.csv --output={tmp_path}/out.csv'
    assert 'in UTF-8' in run('sample_classify.py', *args.split(), status=2).err
    assert (tmp_path / 'out.csv').read_text() == 'precious'


def test_a_row_without_a_text_gets_no_label(moved, tmp_path):
    """It was called bad at .995; training rejects such a row."""
    (tmp_path / 'rows.csv').write_text('id,body\n1,\n2,late and awful\n3,  \n')
    out = run('sample_classify.py', f'--out_dir={moved}', f'--input={tmp_path}/rows.csv').out
    found = [(row['label'], row['probability'] > '') for row in csv.DictReader(out.splitlines())]
    assert found == [('', False), ('bad', True), ('', False)]


def test_a_socket_is_a_pipe(moved):
    """What other programs connect to stdin; it got the answers to the examples."""
    ours, theirs = socket.socketpair()
    ours.sendall(b'late and awful\n')
    ours.shutdown(socket.SHUT_WR)
    assert 'late and awful' in run('sample_classify.py', f'--out_dir={moved}', stdin=theirs).out


def test_a_broken_row_costs_itself_and_a_wrong_column_one_line(moved, tmp_path):
    """And a table that already has a column named label keeps it."""
    (tmp_path / 'rows.csv').write_text('label,body\nx,late and awful\ny,too,many\nz,lovely thanks\n', encoding='utf-8')
    flags = [f'--out_dir={moved}', f'--input={tmp_path}/rows.csv']
    result = run('sample_classify.py', *flags)
    assert 'line 3' in result.err and '1 left out' in result.err
    found = list(csv.DictReader(result.out.splitlines()))
    assert [row['label'] for row in found] == ['x', 'z'] and [row['predicted_label'] for row in found] == ['bad', 'good']
    out = ['--text_column=body', f'--output={tmp_path}/out.tsv']
    (tmp_path / 'rows.csv').write_text('label,body,predicted_label,body\nx,"late, ""so"" awful",mine,last\n', encoding='utf-8')
    run('sample_classify.py', *flags, *out)
    header, row = (tmp_path / 'out.tsv').read_text(encoding='utf-8').splitlines()
    assert header.split('\t')[:5] == ['label', 'body', 'predicted_label', 'body.3', 'predicted_predicted_label']
    assert row.split('\t')[:5] == ['x', 'late, "so" awful', 'mine', 'last', 'bad'], 'no column is lost, and no quote is added'
    (tmp_path / 'rows.csv').write_text('label,body\nx,late\n', encoding='utf-8')
    wrong = run('sample_classify.py', *flags, '--text_column=words', f'--output={tmp_path}/o.csv', status=2)
    assert 'label, body' in wrong.err and 'Traceback' not in wrong.err and not os.path.exists(tmp_path / 'o.csv')
