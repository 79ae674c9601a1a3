# python -m pytest tests/test_report.py
"""Pictures, card and tables say what the files say; a language model's server may misbehave as it likes; no network."""

import csv
import http.server
import json
import os
import re
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SLOW, run

import report

KEY = 'sk-very-secret-0123456789'
LABELS = ['negative', 'neutral', 'positive']
NASTY = '=HYPERLINK("x") ``` | --- <script> # *bold*\n---\n```` $x$ ' + 'word ' * 100


def write_run(folder, n=30, labels=LABELS, seed=0, evaluation=True, text=NASTY, temperature=2.0):
    """The files of a judged run: truth i % K, every fifth wrong."""
    os.makedirs(folder, exist_ok=True)
    rng, K = np.random.default_rng(seed), len(labels)
    truth = np.arange(n) % K
    guess = np.where(np.arange(n) % 5 == 0, (truth + 1) % K, truth)
    logits = rng.uniform(0, 1, (n, K))
    logits[np.arange(n), guess] += 1 + rng.uniform(0, 3, n)
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    columns = 'row text label prediction confidence margin loss tokens truncated tags'.split() + [f'logit_{x}' for x in labels]
    text = f"'{text}" if text[0] in '=+-@' else text
    rows = [
        [i, f'{text} {i}', labels[truth[i]], labels[guess[i]], p[i].max(), 0.1, 0.5, 3 + i % 7, False, 'long', *logits[i]]
        for i in range(n)
    ]
    for name, some in (('predictions', rows), ('errors', sorted((r for r in rows if r[2] != r[3]), key=lambda r: -r[4]))):
        with open(f'{folder}/{name}.csv', 'w', newline='', encoding='utf-8') as f:
            csv.writer(f).writerows([columns, *some])
    with open(f'{folder}/metrics.jsonl', 'w', encoding='utf-8') as f:
        for it in range(1, 5):
            f.write(json.dumps(dict(iter=it, epoch=it / 2, loss=1 / it, lr=0.1, norm=1.0)) + '\n')
            new = dict(val_loss=abs(it - 3) + 0.5, val_accuracy=0.5, val_macro_f1=0.4, train_loss=1 / it)
            f.write(json.dumps(dict(iter=it, epoch=it / 2) | new) + '\n')
        f.write('{"iter": 5, "epo')  # a killed run
    counts = np.bincount(truth * K + guess, minlength=K * K).reshape(K, K)
    hits = int(counts.trace())
    each = {
        x: dict(
            precision=0.711 + i / 100, recall=counts[i, i] / counts[i].sum(), f1=0.731 + i / 100, support=int(counts[i].sum())
        )
        for i, x in enumerate(labels)
    }
    about = dict(split='test', n=n, labels=labels, accuracy=hits / n, accuracy_ci=list(report.wilson(hits, n)), macro_f1=0.789)
    about |= dict(macro_f1_ci=[0.612, 0.912], per_class=each, confusion=counts.tolist(), nll=0.543, ece=0.087)
    about |= dict(ece_calibrated=0.034, temperature=temperature, coverage=[[0.5, 0.967, 0.81], [0.9, 0.2, None]], tags={})
    about['baseline'] = {
        'majority': {'accuracy': 0.345, 'macro_f1': 0.171},
        'bag_of_words': {'accuracy': 0.82, 'macro_f1': 0.8},
    }
    about['best'] = dict(iter=3, epoch=1.5, val_loss=0.5, val_accuracy=0.5, val_macro_f1=0.4)
    about |= dict(dataset='mine & yours v1.2', tokenizer='bpe300', n_params=1234567, n_train=777, n_val=193, git='c0ffee')
    about |= dict(command='python train.py config/x.py --seed=1', settings=dict(block_size=256, keep='last', seed=1))
    about['versions'] = dict(python='3.11', torch='2.13', numpy='2.4')
    if evaluation:
        Path(folder, 'evaluation.json').write_text(json.dumps(about), encoding='utf-8')
    return about


# -----------------------------------------------------------------------------
# figures


def test_bins_and_calibration_error_by_hand():
    """
    Sorted by confidence .6 .7 | .8 .9 with hits 0 1 | 1 1: means .65 and .85, right .5 and 1, so the error is
    (2 * .15 + 2 * .15) / 4 = .15. Order of the texts must not matter, and fewer texts than bins must not make empty ones.
    """
    confidence, hits = np.array([0.9, 0.6, 0.8, 0.7]), np.array([1, 0, 1, 1])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        mean, right, n, ece = report.reliability_bins(confidence[order], hits[order], 2)
        np.testing.assert_allclose([*mean, *right, *n, ece], [0.65, 0.85, 0.5, 1, 2, 2, 0.15])
    assert report.reliability_bins(confidence, hits)[2].tolist() == [1, 1, 1, 1]
    sizes = report.reliability_bins(np.linspace(0.5, 1, 872), np.ones(872))[2]
    assert len(sizes) == 15 and sizes.sum() == 872 and np.ptp(sizes) <= 1, 'equal mass'


def test_length_bins_by_hand():
    """No bin is empty, no text is lost, texts of one length are never torn apart."""
    tokens, hits = np.array([3, 9, 3, 3, 7]), np.array([1, 0, 1, 0, 1])
    assert report.length_bins(tokens, hits, 2) == [(3, 3, 3, 2), (7, 9, 2, 1)]
    assert report.length_bins(np.array([4, 4]), np.array([1, 0])) == [(4, 4, 2, 1)]
    tokens = np.random.default_rng(0).integers(1, 500, 872)
    bins = report.length_bins(tokens, np.ones(872, int))
    assert len(bins) == 8 and sum(b[2] for b in bins) == 872 and all(b[2] > 80 for b in bins)
    assert all(a[1] < b[0] for a, b in zip(bins, bins[1:]))


@pytest.mark.parametrize('hits, n', [(0, 0), (0, 7), (7, 7), (21, 30), (800, 872)])
def test_wilson_is_the_one_of_evaluate(hits, n):
    """It is written twice, because this file must not need torch."""
    pytest.importorskip('torch')
    from evaluate import wilson

    np.testing.assert_allclose(report.wilson(hits, n), wilson(hits, n), atol=1e-9)


def test_a_perfect_run_lies_within_its_interval():
    """24 of 24 had an upper end of 1 - 1e-16, and matplotlib takes no error bar below zero."""
    for n in range(1, 300):
        for hits in (0, n):
            low, high = report.wilson(hits, n)
            assert low <= hits / n <= high


def test_torch_is_not_imported():
    run(['-c', 'import sys; sys.modules["torch"] = None; import report'], cwd=ROOT)


# -----------------------------------------------------------------------------
# pictures


def png_size(path):
    head = Path(path).read_bytes()[:24]
    assert head[:8] == b'\x89PNG\r\n\x1a\n'
    return int.from_bytes(head[16:20], 'big'), int.from_bytes(head[20:24], 'big')


@pytest.mark.parametrize('evaluation', [True, False])
def test_pictures_and_card_are_made(tmp_path, evaluation):
    """The pictures need no evaluation.json; the card does, and says where it comes from."""
    pytest.importorskip('matplotlib')
    write_run(tmp_path / 'run', labels=['a$b$', 'with a long name'], evaluation=evaluation)
    result = run('report.py', f'--out_dir={tmp_path}/run', status=0 if evaluation else 2, env={'MPLBACKEND': 'tkagg'})
    for name in ('curves', 'confusion', 'reliability', 'length', 'seeds'):
        width, height = png_size(tmp_path / 'run' / f'{name}.png')
        assert 800 < width < 3000 and 600 < height < 3000, name
    if evaluation:
        assert [os.path.basename(x) for x in result.last['files']][-1] == 'card.md' and len(result.last['files']) == 6
    else:
        assert result.err.strip().count('\n') == 0 and f'python evaluate.py --out_dir={tmp_path}/run' in result.err


def test_the_pictures_show_what_the_files_say(tmp_path, monkeypatch):
    """Read back from the figures, against the files and metrics.py: a transposed matrix looks as good as the right one."""
    figure = pytest.importorskip('matplotlib.figure')
    pytest.importorskip('torch')
    from metrics import ece, softmax

    drawn = {}
    monkeypatch.setattr(figure.Figure, 'savefig', lambda self, path: drawn.update({path.stem: self.axes}))
    about, (rows, _, logits) = write_run(tmp_path), report.read_rows(tmp_path)
    report.draw(tmp_path, [tmp_path], tmp_path, about)
    truth, hits = np.array([[row['truth'], row['truth'] == row['guess']] for row in rows]).T
    # curves: what is logged at each step, and the losses of each evaluation
    *lines, steps = drawn['curves'][0].lines
    loss = {line.get_label(): line.get_xydata().tolist() for line in lines}
    assert steps.get_xydata().tolist() == [[it / 2, 1 / it] for it in range(1, 5)] and len(loss) == 3
    assert loss['val loss'] == [[0.5, 2.5], [1, 1.5], [1.5, 0.5], [2, 1.5]] and 'chosen: epoch 1.5' in loss
    # confusion: rows are the truth
    cells = {text.get_position()[::-1]: text.get_text() for text in drawn['confusion'][0].texts}
    for (i, j), n in np.ndenumerate(np.array(about['confusion'])):
        assert cells[i, j] == f'{n}\n{n / sum(truth == i):.0%}'
    for axis in (drawn['confusion'][0].xaxis, drawn['confusion'][0].yaxis):
        assert [x.get_text() for x in axis.get_ticklabels()] == LABELS
    # reliability: the error is the area between dots and diagonal
    lines = {line.get_label(): line.get_xydata() for line in drawn['reliability'][0].lines}
    for name, t in (('calibrated', 2.0), ('as trained', 1.0)):
        p = softmax(logits / t)
        dots = lines[f'{name}, ECE {ece(p, truth):.3f}']
        np.testing.assert_allclose([dots[:, 0].mean(), dots[:, 1].mean()], [p.max(axis=1).mean(), hits.mean()])
    # length and seeds: shares right, by group
    names = [x.get_text() for x in drawn['length'][0].get_xticklabels()]
    tokens, (dots, *_) = np.array([int(row['tokens']) for row in rows]), drawn['length'][0].containers[0]
    for name, (_, y) in zip(names, dots.get_xydata(), strict=True):
        low, high, n = map(int, re.fullmatch(r'(\d+)-(\d+)\nn (\d+)', name).groups())
        some = hits[(low <= tokens) & (tokens <= high)]
        assert (len(some), y) == (n, some.mean())
    assert drawn['seeds'][0].containers[0][0].get_xydata().tolist() == [[0, hits.mean()]]


def test_a_folder_of_seeds_has_one_picture_of_all(tmp_path):
    """Ten comes after two; the rest is about the first, and that is said."""
    pytest.importorskip('matplotlib')
    for seed in (10, 2):
        write_run(tmp_path / f'seed-{seed}', seed=seed)
    result = run('report.py', f'--out_dir={tmp_path}')
    assert os.listdir(tmp_path).count('seeds.png') == 1 and (tmp_path / 'seed-2' / 'card.md').exists()
    assert not (tmp_path / 'seed-10' / 'card.md').exists() and f'about {tmp_path}/seed-2' in result.out


def test_without_matplotlib_one_line_says_what_to_install(tmp_path):
    write_run(tmp_path)
    code = 'import sys, runpy; sys.modules["matplotlib"] = None; sys.argv = ["report.py", sys.argv[1]]; '
    code += 'runpy.run_path("report.py", run_name="__main__")'
    result = run(['-c', code], f'--out_dir={tmp_path}', status=2, cwd=ROOT)
    assert 'pip install matplotlib' in result.err and result.err.count('\n') == 1


@pytest.mark.parametrize('damage', ['gone', 'empty', 'column', 'logit', 'label'])
def test_damaged_predictions_are_one_line(tmp_path, capsys, damage):
    write_run(tmp_path)
    path = tmp_path / 'predictions.csv'
    text = path.read_text(encoding='utf-8')
    if damage == 'gone':
        path.unlink()
    elif damage == 'empty':
        path.write_text('')
    else:
        old, new = {'column': ('text,', 'txt,'), 'logit': ('long,', 'long,x'), 'label': (',neutral,', ',other,')}[damage]
        path.write_text(text.replace(old, new), encoding='utf-8')
    with pytest.raises(SystemExit) as e:
        report.read_rows(tmp_path)
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.count('\n') == 1 and 'predictions.csv' in err and 'python evaluate.py --out_dir=' in err


# -----------------------------------------------------------------------------
# card


def make_card(tmp_path, **more):
    about = write_run(tmp_path, **more)
    return about, report.card(about, report.read_rows(tmp_path, 'errors.csv')[0], 'my-run')


def test_the_head_is_what_the_hub_reads(tmp_path, monkeypatch):
    """YAML between the first two lines of ---; no language where none was given."""
    yaml = pytest.importorskip('yaml')
    about, text = make_card(tmp_path)
    head = yaml.safe_load(text.split('---\n')[1])
    result = head['model-index'][0]['results'][0]
    assert head['pipeline_tag'] == 'text-classification' and 'language' not in head and head['datasets'] == ['mine-yours-v1.2']
    assert [m['value'] for m in result['metrics']] == [about['accuracy'], about['macro_f1']]
    assert result['dataset']['split'] == 'test' and head['model-index'][0]['name'] == 'my-run'
    monkeypatch.setattr(report, 'language', 'en')
    assert yaml.safe_load(make_card(tmp_path)[1].split('---\n')[1])['language'] == 'en'


def test_figures_of_the_card_are_those_of_evaluation_json(tmp_path):
    """No figure is typed: each cell is one of the file's numbers, to three digits."""
    about, text = make_card(tmp_path)
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.split('\n') if line.startswith('|')]
    rows = {line[0]: line[1:] for line in lines}
    s = report.share
    assert rows['this model'] == [s(about['accuracy']), s(about['accuracy_ci']), s(about['macro_f1']), '.612 to .912']
    assert rows['bag of words'] == ['.820', '', '.800', ''] and rows['majority'] == ['.345', '', '.171', '']
    for i, (label, c) in enumerate(about['per_class'].items()):
        hits, guessed = about['confusion'][i][i], sum(row[i] for row in about['confusion'])
        intervals = s(report.wilson(hits, guessed)), s(report.wilson(hits, c['support']))
        wanted = [s(c['precision']), intervals[0], s(c['recall']), intervals[1], s(c['f1']), str(c['support'])]
        assert rows[label] == wanted
    assert rows['.500'] == ['.967', '.810'] and rows['.900'] == ['.200', '']
    for part in ('.543', '.087', '.034', '2.000', '1,234,567', '777', '193', 'c0ffee', 'torch 2.13', about['command']):
        assert part in text, part
    assert 'the bag of words' in text and 'the majority' not in text, 'a better baseline is named'
    assert 'the this model' not in text and f'{1 - about["accuracy"]:.1%} of its answers on test were wrong' in text


def test_a_text_cannot_break_the_card(tmp_path):
    """It stands on one indented line after an empty one, where Markdown means nothing; a label is escaped."""
    labels = ['a|b', '**c**', '`d`\n---', '__e__']
    _, text = make_card(tmp_path, labels=labels)
    shown = [line for line in text.split('\n') if 'HYPERLINK' in line]
    assert len(shown) == 4 and all(line.startswith('    =HYPERLINK') and len(line) < 320 for line in shown)
    lines = text.split('\n')
    assert all(lines[i - 1] == '' for i, line in enumerate(lines) if line.startswith('    '))
    assert lines.count('---') == 2 and lines[0] == '---'
    assert (
        r'a\|b' in text
        and r'\*\*c\*\*' in text
        and r'\_\_e\_\_' in text
        and not re.search(r'(?<!\\)`', text.replace('    =HYPERLINK', '').split('# my')[0])
    )
    assert len({len(re.split(r'(?<!\\)\|', line)) for line in lines if line.startswith(('| a', '| label'))}) == 1


# -----------------------------------------------------------------------------
# language model


@pytest.mark.parametrize(
    'answer, label',
    [
        ('positive', 'positive'),
        ('**Positive.**', 'positive'),
        ('The label is "very good".', 'very good'),
        ('good', 'good'),
        ('goodness', ''),
        ('positive or negative', ''),
        ('I cannot say', ''),
        ('', ''),
        ('<think>negative? no</think>\n\npositive', 'positive'),
        ('negative? no</think>positive', 'positive'),  # some templates begin the thought themselves
        ('C++', 'C++'),
    ],
)
def test_the_label_in_an_answer(answer, label):
    """Whole words, any case, the longest first; none or several is no answer."""
    assert report.named(answer, ['positive', 'negative', 'good', 'very good', 'C++']) == label


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get('Authorization')))
        self.reply(200, b'{"choices": [{"message": {"content": "positive"}}]}')

    def reply(self, code, body, more=0, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Length', str(len(body) + more))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.server.seen.append((asked, self.headers.get('Authorization')))
        kind, times = self.path.split('/')[1], len(self.server.seen)
        said = {'none': 'I cannot say.', 'two': 'negative, no, positive', 'echo': f'{self.headers["Authorization"]} positive'}
        good = json.dumps({'choices': [{'message': {'content': said.get(kind, 'Positive.')}}]}).encode()
        if kind == 'busy' and times == 1:
            self.reply(429, b'', Retry_After='1')
        elif kind == 'broken' and times <= 3:
            self.reply(500, b'no')
        elif kind == 'hangs' and times == 1:
            self.server.released.wait(5 * SLOW)
        elif kind == 'midway' and times == 1:
            self.reply(200, good[:10], more=len(good))
            self.connection.shutdown(socket.SHUT_RDWR)
        elif kind == 'prose':
            self.reply(200, b'<html>welcome</html>')
        elif kind == 'shape':
            self.reply(200, b'{"choices": []}')
        elif kind == 'later401' and times > 2 or kind == '401':
            self.reply(401, f'bad key {KEY}'.encode())
        elif kind == '404':
            self.reply(404, b'no such model')
        elif kind == 'moved':
            self.reply(302, b'', Location=f'http://localhost:{self.server.other.server_port}/v1/chat/completions')
        else:
            self.reply(200, good)


@pytest.fixture
def servers(monkeypatch):
    """A server, and another host that it may point to."""
    monkeypatch.setenv('LLM_API_KEY', KEY)
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.setenv(name, '*')
    pair = [http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) for _ in range(2)]
    for server, other in zip(pair, pair[::-1]):
        server.seen, server.released, server.other, server.daemon_threads = [], threading.Event(), other, True
        threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
    yield pair
    for server in pair:
        server.released.set()
        server.shutdown()
        server.server_close()


def compare(monkeypatch, folder, server, kind='good', **more):
    settings = dict(
        llm=f'http://127.0.0.1:{server.server_port}/{kind}', llm_model='tiny', llm_timeout=0.3 * SLOW, llm_backoff=0.01
    )
    for name, value in (settings | more).items():
        monkeypatch.setattr(report, name, value)
    return report.compare(folder)[1]['llm']


def assert_key_nowhere(folder, capsys):
    out, err = capsys.readouterr()
    assert KEY not in out + err
    assert all(KEY.encode() not in path.read_bytes() for path in Path(folder).rglob('*') if path.is_file())


@pytest.mark.parametrize('kind, asked', [('good', 6), ('busy', 7), ('broken', 9), ('hangs', 7), ('midway', 7), ('echo', 6)])
def test_trouble_that_passes_is_waited_for(tmp_path, servers, monkeypatch, capsys, kind, asked):
    """Six errors, two of them on positive texts; the server's trouble costs some more requests, and no answer."""
    write_run(tmp_path)
    sleeps = []
    monkeypatch.setattr(report.time, 'sleep', sleeps.append)
    counts = compare(monkeypatch, tmp_path, servers[0], kind)
    assert counts == dict(both_wrong=4, only_ours_right=0, only_llm_right=2, both_right=0, unparsed=0)
    assert len(servers[0].seen) == asked
    assert {authorization for _, authorization in servers[0].seen} == {f'Bearer {KEY}'}
    body = servers[0].seen[0][0]
    assert body['temperature'] == 0 and body['model'] == 'tiny' and ', '.join(LABELS) in body['messages'][0]['content']
    assert "'=HYPER" not in body['messages'][0]['content'], 'the model reads the text, not the quoted cell'
    if kind == 'busy':
        assert sleeps == [1], 'Retry-After'
    if kind == 'broken':
        assert sleeps == [0.01, 0.02, 0.04], 'twice as long each time'
    assert_key_nowhere(tmp_path, capsys)


def test_answers_are_kept_and_asked_once(tmp_path, servers, monkeypatch):
    """A second call costs nothing; another model is another question."""
    write_run(tmp_path)
    first = compare(monkeypatch, tmp_path, servers[0])
    table = (tmp_path / 'errors_llm.csv').read_bytes()
    assert len(servers[0].seen) == 6
    assert compare(monkeypatch, tmp_path, servers[0]) == first and len(servers[0].seen) == 6
    assert (tmp_path / 'errors_llm.csv').read_bytes() == table
    with open(tmp_path / 'llm_cache.jsonl', 'a', encoding='utf-8') as f:
        f.write('["half a li')  # a kill in the middle of a line
    assert compare(monkeypatch, tmp_path, servers[0]) == first and len(servers[0].seen) == 6
    compare(monkeypatch, tmp_path, servers[0], llm_model='other')
    assert len(servers[0].seen) == 12


def test_without_a_key_none_is_sent(tmp_path, servers, monkeypatch):
    """Servers at home want none, and some take an empty one amiss."""
    monkeypatch.setenv('LLM_API_KEY', '')
    write_run(tmp_path)
    compare(monkeypatch, tmp_path, servers[0])
    assert {key for _, key in servers[0].seen} == {None}


@pytest.mark.parametrize('kind, word', [('401', '401'), ('404', '404'), ('prose', 'JSON'), ('shape', 'JSON')])
def test_trouble_that_stays_is_one_line(tmp_path, servers, monkeypatch, capsys, kind, word):
    write_run(tmp_path)
    with pytest.raises(SystemExit) as e:
        compare(monkeypatch, tmp_path, servers[0], kind)
    assert e.value.code == 2 and len(servers[0].seen) == 1, 'asking again would not help'
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and word in err and '--llm' in err and KEY not in err


def test_nobody_there_is_one_line_after_the_tries(tmp_path, servers, monkeypatch, capsys):
    write_run(tmp_path)
    with pytest.raises(SystemExit) as e:
        compare(monkeypatch, tmp_path, servers[0], llm='http://127.0.0.1:9/v1', llm_retries=2)
    assert e.value.code == 2 and capsys.readouterr().err.count('\n') == 3, 'two announce another try'


def test_what_was_answered_before_the_trouble_is_kept(tmp_path, servers, monkeypatch, capsys):
    """Two answers, then the key runs out; with a good one it goes on where it stopped."""
    write_run(tmp_path)
    with pytest.raises(SystemExit):
        compare(monkeypatch, tmp_path, servers[0], 'later401')
    assert len((tmp_path / 'llm_cache.jsonl').read_text().splitlines()) == 2
    servers[0].seen.clear()
    with pytest.raises(SystemExit):
        compare(monkeypatch, tmp_path, servers[0], 'later401')
    assert len((tmp_path / 'llm_cache.jsonl').read_text().splitlines()) == 4
    assert_key_nowhere(tmp_path, capsys)


def test_a_redirect_does_not_take_the_key_along(tmp_path, servers, monkeypatch, capsys):
    """Whoever can answer with an address elsewhere could otherwise collect keys."""
    write_run(tmp_path)
    try:
        compare(monkeypatch, tmp_path, servers[0], 'moved')
    except SystemExit as e:
        assert e.code == 2
    assert servers[0].seen[0][1] == f'Bearer {KEY}'
    assert all(authorization is None for _, authorization in servers[1].seen)
    assert_key_nowhere(tmp_path, capsys)


@pytest.mark.parametrize('kind', ['none', 'two'])
def test_an_answer_without_one_label_is_unparsed(tmp_path, servers, monkeypatch, kind):
    """Guessing what was meant would make the language model look better or worse than it is."""
    write_run(tmp_path)
    assert compare(monkeypatch, tmp_path, servers[0], kind)['unparsed'] == 6


def test_of_all_rows_all_four_counts_occur(tmp_path, servers, monkeypatch):
    """It always says positive: of 30 texts that is right for 10, and ours errs on 6, two of them positive."""
    write_run(tmp_path)
    counts = compare(monkeypatch, tmp_path, servers[0], llm_rows='all', llm_n=100)
    assert counts == dict(both_wrong=4, only_ours_right=16, only_llm_right=2, both_right=8, unparsed=0)
    with open(tmp_path / 'errors_llm.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == ['row', 'text', 'label', 'prediction', 'confidence', 'llm', 'answer'] and len(rows) == 30
    assert all(row['text'].startswith("'=HYPERLINK") for row in rows), 'a spreadsheet must not run it'


@pytest.mark.parametrize('more', [dict(llm='ftp://x'), dict(llm_rows='some'), dict(llm_model='')])
def test_senseless_settings_are_one_line(tmp_path, servers, monkeypatch, capsys, more):
    write_run(tmp_path)
    with pytest.raises(SystemExit) as e:
        compare(monkeypatch, tmp_path, servers[0], **more)
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.count('\n') == 1 and '--llm' in err and not servers[0].seen


def test_a_key_that_no_header_may_hold_is_not_quoted(tmp_path, servers, monkeypatch, capsys):
    """The error of http.client would show it whole."""
    write_run(tmp_path)
    monkeypatch.setenv('LLM_API_KEY', f'{KEY}\nx')
    with pytest.raises(SystemExit):
        compare(monkeypatch, tmp_path, servers[0])
    assert_key_nowhere(tmp_path, capsys)


def test_the_command_prints_the_counts_as_json(tmp_path, servers):
    write_run(tmp_path)
    url = f'http://127.0.0.1:{servers[0].server_port}/good'
    result = run('report.py', f'--out_dir={tmp_path}', f'--llm={url}', '--llm_model=m')
    assert result.last['llm']['only_llm_right'] == 2 and KEY not in result.out + result.err
    assert result.last['files'] == [f'{tmp_path}/errors_llm.csv']


# -----------------------------------------------------------------------------
# README


def cells(table):
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in table.split('\n')]


def write_results(folder):
    """One config measured with two seeds, one of them twice, and folds; another never; two baselines."""
    for name in ('results', 'config'):
        (folder / name).mkdir()
    (folder / 'config' / 'small.py').write_text("# ...\nout_dir = 'out/small'\ndataset = 'mail'\n")
    (folder / 'config' / 'large.py').write_text("dataset = 'mail'\nout_dir = 'out/large'\n")

    def line(seed, accuracy, **more):
        test = dict(accuracy=accuracy, accuracy_ci=[0, 1], macro_f1=accuracy, recall={'a': 0.9, 'b': accuracy - 0.5})
        return json.dumps(dict(run='out/small/x', dataset='mail', n_test=30, seed=seed, fold=0, seconds=120, test=test) | more)

    lines = [line(1, 0.5), line(2, 0.7), line(1, 0.8), line(1, 0.1, fold=2), line(3, 0.9, test=None)]
    (folder / 'results' / 'small.jsonl').write_text('\n'.join(lines) + '\n')
    (folder / 'results' / 'other.jsonl').write_text(line(1, 0.6, dataset='demo') + '\n')
    base = dict(dataset='mail', n_test=30, accuracy=0.4, macro_f1=0.3, recall={'a': 1.0, 'b': 0.0}, folds_macro_f1=None)
    lines = [json.dumps(base | {'model': 'majority'}), json.dumps(base | {'model': 'bag of words', 'folds_macro_f1': 0.55})]
    (folder / 'results' / 'baselines.jsonl').write_text('\n'.join(lines) + '\n')
    folds = dict(dataset='mail', run='out/small/folds', folds=5, n=970, accuracy=0.7)
    folds |= dict(macro_f1=0.66, macro_f1_sd=0.02, macro_f1_ci=[0.6, 0.71])
    (folder / 'results' / 'folds.jsonl').write_text(json.dumps(folds | {'command': 'python train.py config/small.py'}) + '\n')


def test_results_table_by_hand(tmp_path):
    """Seed 1 was run again: .800 counts; a fold and a run without a test are no seeds; sd of .8 and .7 is .071."""
    write_results(tmp_path)
    head, _, *rows = cells(report.results_table(str(tmp_path / 'results'), str(tmp_path / 'config')))
    assert [row[:2] for row in rows] == [
        ['demo', '`python train.py config/small.py`'],
        ['mail', 'bag of words'],
        ['mail', 'majority'],
        ['mail', '`python train.py config/large.py`'],
        ['mail', '`python train.py config/small.py`'],
    ]
    assert len({len(row) for row in [head, *rows]}) == 1
    assert rows[1][2:] == ['30', '.400', '.400, .246 to .577', '.300', 'b .000', '.550', ''] and rows[2][7] == ''
    assert rows[3][3] == 'not yet measured'
    assert rows[4][2:] == ['30', '.800 .700', '.750 ± .071, .573 to .870', '.750', 'b .250', '.660 ± .020, .600 to .710', '2.0']
    assert rows[0][3:5] == ['.600', '.600, .423 to .754'], 'one seed has no sd'


def test_the_table_is_filled_in_and_nothing_else(tmp_path):
    """README.md is written over, so all around the two marks must stay; without them nothing is."""
    for name in ('report.py', 'configurator.py'):
        shutil.copy(os.path.join(ROOT, name), tmp_path)
    for name in ('config', 'results'):
        (tmp_path / name).mkdir()
    (tmp_path / 'config' / 'x.py').write_text("dataset = 'mine'\n")
    (readme := tmp_path / 'README.md').write_text('before\n<!-- results -->\nstale\n<!-- /results -->\nafter\n')
    run([str(tmp_path / 'report.py')], '--readme=True')
    head, table, tail = re.split('<!-- /?results -->', readme.read_text())
    assert (head, tail) == ('before\n', '\nafter\n') and 'config/x.py' in table and 'stale' not in table
    readme.write_text('before\n<!-- results -->\nstale\n')
    assert 'add them' in run([str(tmp_path / 'report.py')], '--readme=True', status=2).err
    assert readme.read_text() == 'before\n<!-- results -->\nstale\n'


def test_the_readme_shows_the_results():
    """No figure in it is typed by hand."""
    text = (Path(ROOT) / 'README.md').read_text(encoding='utf-8')
    parts = re.split('<!-- /?results -->', text)
    assert len(parts) == 3, 'README.md lacks the lines <!-- results --> and <!-- /results --> around its table'
    wanted = report.results_table(os.path.join(ROOT, 'results'), os.path.join(ROOT, 'config'))
    assert parts[1].strip() == wanted, 'README.md is older than results/ or config/: python report.py --readme=True'
