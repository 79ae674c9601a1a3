"""
A language model's server may misbehave as it likes, and nobody must see the key.
python -m pytest tests/test_llm.py
"""

import csv
import http.server
import json
import socket
import threading
from pathlib import Path

import pytest
from conftest import SLOW
from evaluated_run import LABELS, write_run

from nanosentiment import llm
from nanosentiment.llm import ask_about_rows, find_label, print_answers

KEY = 'sk-very-secret-0123456789'
PROMPT = 'Answer with one of these labels and nothing else: {labels}.\n\nText:\n{text}'
COUNTS = ['both_wrong', 'only_ours_right', 'only_llm_right', 'both_right', 'unparsed']


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
        ('negative? no</think>positive', 'positive'),  # the template began the thought
        ('C++', 'C++'),
    ],
)
def test_the_label_in_an_answer(answer, label):
    """Whole words, in any case, the longest first; none or several is no answer."""
    assert find_label(answer, ['positive', 'negative', 'good', 'very good', 'C++']) == label


# -----------------------------------------------------------------------------
# a server whose behaviour is the first part of its address


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, code, body, missing_bytes=0, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Length', str(len(body) + missing_bytes))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        """What urllib makes of a POST that is redirected."""
        self.server.requests.append((self.path, self.headers.get('Authorization')))
        self.reply(200, completion('positive'))

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        authorization = self.headers.get('Authorization')
        self.server.requests.append((question, authorization))
        behaviour = self.path.split('/')[1]
        n_requests = len(self.server.requests)

        answers = {
            'says_nothing': 'I cannot say.',
            'says_two': 'negative, no, positive',
            'says_the_key': f'{authorization} positive',
        }
        good = completion(answers.get(behaviour, 'Positive.'))

        if behaviour == 'busy' and n_requests == 1:
            self.reply(429, b'', Retry_After='1')
        elif behaviour == 'very_busy':
            self.reply(429, b'', Retry_After='9999')
        elif behaviour == 'broken' and n_requests <= 3:
            self.reply(500, b'no')
        elif behaviour == 'hangs' and n_requests == 1:
            self.server.closing.wait(5 * SLOW)
        elif behaviour == 'breaks_off' and n_requests == 1:
            self.reply(200, good[:10], missing_bytes=len(good))
            self.connection.shutdown(socket.SHUT_RDWR)
        elif behaviour == 'html':
            self.reply(200, b'<html>welcome</html>')
        elif behaviour == 'no_choice':
            self.reply(200, b'{"choices": []}')
        elif behaviour == 'always_401' or (behaviour == 'later_401' and n_requests > 2):
            self.reply(401, f'bad key {KEY}'.encode())
        elif behaviour == 'always_404':
            self.reply(404, b'no such model')
        elif behaviour == 'moved':
            other = f'http://localhost:{self.server.other.server_port}'
            self.reply(302, b'', Location=f'{other}/v1/chat/completions')
        else:
            self.reply(200, good)


def completion(content):
    """The JSON of a chat completion."""
    return json.dumps({'choices': [{'message': {'content': content}}]}).encode()


@pytest.fixture
def servers(monkeypatch):
    """A server, and another host to which it may point."""
    monkeypatch.setenv('LLM_API_KEY', KEY)
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.setenv(name, '*')
    pair = [http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) for _ in range(2)]
    for server, other in zip(pair, reversed(pair)):
        server.requests = []
        server.closing = threading.Event()
        server.other = other
        server.daemon_threads = True
        serve = {'poll_interval': 0.02}
        threading.Thread(target=server.serve_forever, kwargs=serve, daemon=True).start()
    yield pair
    for server in pair:
        server.closing.set()
        server.shutdown()
        server.server_close()


def ask_server(folder, server, behaviour='good', **settings):
    """Asks a server about texts of a run -> the summary of its answers."""
    config = {
        'llm': f'http://127.0.0.1:{server.server_port}/{behaviour}',
        'llm_model': 'tiny',
        'llm_rows': 'errors',
        'llm_n': 20,
        'llm_prompt': PROMPT,
        'llm_timeout': 0.3 * SLOW,
        'llm_retries': 4,
        'llm_backoff': 0.01,
    }
    return ask_about_rows(Path(folder), config | settings)[1]


def assert_counts(summary, counts):
    """Who was right, in the order of COUNTS."""
    assert [summary[name] for name in COUNTS] == counts


def read_table(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def assert_key_is_nowhere(folder, capsys):
    out, err = capsys.readouterr()
    assert KEY not in out + err
    for path in Path(folder).rglob('*'):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


# -----------------------------------------------------------------------------
# answers


def test_it_is_asked_about_the_errors_and_answers_are_counted(tmp_path, servers):
    """It always says positive: right for two of our six errors."""
    write_run(tmp_path)
    summary = ask_server(tmp_path, servers[0])
    assert_counts(summary, [4, 0, 2, 0, 0])
    assert summary['answers'] == {'positive': 6}
    question, _ = servers[0].requests[0]
    assert question['temperature'] == 0
    assert question['model'] == 'tiny'
    content = question['messages'][0]['content']
    assert ', '.join(LABELS) in content
    assert '\n=HYPER' in content, 'the text itself, without the quote for spreadsheets'


def test_of_all_rows_all_four_counts_occur(tmp_path, servers, capsys):
    """Always positive is right for 10 of 30 texts; ours errs on 6, two of them positive."""
    write_run(tmp_path)
    summary = ask_server(tmp_path, servers[0], llm_rows='all', llm_n=100)
    assert_counts(summary, [4, 16, 2, 8, 0])
    assert summary['n'] == 30
    assert summary['llm_accuracy'] == pytest.approx(10 / 30)
    assert summary['ours_accuracy'] == pytest.approx(24 / 30)
    print_answers(summary)
    assert capsys.readouterr().out.splitlines() == [
        'answers of the language model: positive 30, no label, or several 0',
        'right in 30 texts: language model 0.333 [0.192, 0.512], ours 0.800 [0.627, 0.905]',
    ]
    rows = read_table(tmp_path / 'predictions_llm.csv')
    columns = ['row', 'text', 'label', 'prediction', 'confidence', 'llm', 'answer']
    assert list(rows[0]) == columns
    assert len(rows) == 30
    for row in rows:
        assert row['text'].startswith("'=HYPERLINK"), 'a spreadsheet must not run it'


def test_some_of_all_rows_are_drawn_at_random(tmp_path, servers):
    """The first rows may be of one label. A larger sample asks only about what is new."""
    write_run(tmp_path)
    samples = []
    for n in (5, 9):
        ask_server(tmp_path, servers[0], llm_rows='all', llm_n=n)
        samples.append([int(row['row']) for row in read_table(tmp_path / 'predictions_llm.csv')])
    assert samples[0] == samples[1][:5]
    assert samples[1] != sorted(samples[1])
    assert len(servers[0].requests) == 9


def test_the_question_can_be_set(tmp_path, servers):
    """Braces in it, as in JSON, are nothing special."""
    write_run(tmp_path)
    ask_server(tmp_path, servers[0], llm_n=1, llm_prompt='{"q": "{text}"} {labels}?')
    content = servers[0].requests[0][0]['messages'][0]['content']
    assert content.startswith('{"q": "=HYPER')
    assert content.endswith(f'"}} {", ".join(LABELS)}?')


@pytest.mark.parametrize('behaviour', ['says_nothing', 'says_two'])
def test_an_answer_without_one_label_is_unparsed(tmp_path, servers, behaviour):
    """To guess what was meant would make the language model look better or worse than it is."""
    write_run(tmp_path)
    for _ in range(2):
        assert ask_server(tmp_path, servers[0], behaviour)['unparsed'] == 6
    assert len(servers[0].requests) == 12, 'it is asked again, because another answer may help'


def test_answers_are_kept_and_asked_once(tmp_path, servers):
    """A second call costs nothing; another model is another question."""
    write_run(tmp_path)
    requests = servers[0].requests
    first = ask_server(tmp_path, servers[0])
    table = (tmp_path / 'errors_llm.csv').read_bytes()
    assert len(requests) == 6

    assert ask_server(tmp_path, servers[0]) == first
    assert len(requests) == 6
    assert (tmp_path / 'errors_llm.csv').read_bytes() == table

    ask_server(tmp_path, servers[0], llm_model='other')
    assert len(requests) == 12


def test_a_cache_that_ends_in_half_a_line_is_read(tmp_path, servers):
    """As a kill may leave it."""
    write_run(tmp_path)
    first = ask_server(tmp_path, servers[0])
    with open(tmp_path / 'llm_cache.jsonl', 'a', encoding='utf-8') as f:
        f.write('["half a li')
    assert ask_server(tmp_path, servers[0]) == first
    assert len(servers[0].requests) == 6


# -----------------------------------------------------------------------------
# trouble


@pytest.mark.parametrize(
    'behaviour, n_requests, waits',
    [
        ('busy', 7, [1]),  # as Retry-After says
        ('broken', 9, [0.01, 0.02, 0.04]),  # twice as long each time
        ('hangs', 7, [0.01]),
        ('breaks_off', 7, [0.01]),
    ],
)
def test_trouble_that_passes_is_waited_for(
    tmp_path, servers, monkeypatch, behaviour, n_requests, waits
):
    """It costs more requests, but no answer."""
    write_run(tmp_path)
    sleeps = []
    monkeypatch.setattr(llm.time, 'sleep', sleeps.append)
    assert_counts(ask_server(tmp_path, servers[0], behaviour), [4, 0, 2, 0, 0])
    assert len(servers[0].requests) == n_requests
    assert sleeps == waits


@pytest.mark.parametrize(
    'behaviour, word',
    [('always_401', '401'), ('always_404', '404'), ('html', 'JSON'), ('no_choice', 'JSON')],
)
def test_trouble_that_stays_is_an_error_at_once(tmp_path, servers, behaviour, word):
    write_run(tmp_path)
    with pytest.raises(ValueError, match=f'{word}.*--llm') as error:
        ask_server(tmp_path, servers[0], behaviour)
    assert len(servers[0].requests) == 1, 'to ask again would not help'
    assert KEY not in str(error.value)


def test_nobody_waits_for_hours_without_knowing(tmp_path, servers):
    """A server may wish 9999 seconds, in which nothing would be printed."""
    write_run(tmp_path)
    with pytest.raises(ValueError, match='HTTP 429, and the next try would be in 9999 s'):
        ask_server(tmp_path, servers[0], 'very_busy')


def test_a_password_in_the_address_is_sent_and_not_shown(tmp_path, servers, monkeypatch, capsys):
    write_run(tmp_path)
    monkeypatch.delenv('LLM_API_KEY')
    url = f'http://me:geheim@127.0.0.1:{servers[0].server_port}'
    ask_server(tmp_path, servers[0], llm=f'{url}/good')
    assert {authorization for _, authorization in servers[0].requests} == {'Basic bWU6Z2VoZWlt'}
    with pytest.raises(ValueError) as error:
        ask_server(tmp_path, servers[0], llm=f'{url}/html', llm_model='another')
    assert 'geheim' not in str(error.value) + capsys.readouterr().err


def test_a_damaged_cache_is_named(tmp_path, servers):
    write_run(tmp_path)
    (tmp_path / 'llm_cache.jsonl').write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match='llm_cache.jsonl holds other things than answers'):
        ask_server(tmp_path, servers[0])


def test_a_server_that_is_not_there_is_an_error_after_the_retries(tmp_path, servers, capsys):
    write_run(tmp_path)
    with pytest.raises(ValueError, match='no answer'):
        ask_server(tmp_path, servers[0], llm='http://127.0.0.1:9/v1', llm_retries=2)
    assert capsys.readouterr().err.count('again in') == 2


def test_answers_before_the_trouble_are_kept(tmp_path, servers):
    """The key is refused after two answers; the next call asks about the third text."""
    write_run(tmp_path)
    for n_kept in (2, 4):
        servers[0].requests.clear()
        with pytest.raises(ValueError, match='401'):
            ask_server(tmp_path, servers[0], 'later_401')
        cache = (tmp_path / 'llm_cache.jsonl').read_text()
        assert len(cache.splitlines()) == n_kept


@pytest.mark.parametrize(
    'settings',
    [
        {'llm': 'ftp://x'},
        {'llm_rows': 'some'},
        {'llm_model': ''},
        {'llm_n': -1},
        {'llm_prompt': 'x'},
    ],
)
def test_settings_that_cannot_work_are_an_error(tmp_path, servers, settings):
    write_run(tmp_path)
    with pytest.raises(ValueError, match='--llm'):
        ask_server(tmp_path, servers[0], **settings)
    assert not servers[0].requests


# -----------------------------------------------------------------------------
# the key


@pytest.mark.parametrize('behaviour', ['good', 'says_the_key', 'broken', 'later_401'])
def test_the_key_is_sent_and_written_nowhere(tmp_path, servers, capsys, behaviour):
    write_run(tmp_path)
    try:
        ask_server(tmp_path, servers[0], behaviour)
    except ValueError as error:
        assert KEY not in str(error)
    authorizations = {authorization for _, authorization in servers[0].requests}
    assert authorizations == {f'Bearer {KEY}'}
    assert_key_is_nowhere(tmp_path, capsys)


def test_without_a_key_none_is_sent(tmp_path, servers, monkeypatch):
    """A local server needs none, and some refuse an empty one."""
    monkeypatch.setenv('LLM_API_KEY', '')
    write_run(tmp_path)
    ask_server(tmp_path, servers[0])
    authorizations = {authorization for _, authorization in servers[0].requests}
    assert authorizations == {None}


def test_a_redirect_does_not_take_the_key_along(tmp_path, servers):
    """Whoever can answer with another address could otherwise collect keys."""
    write_run(tmp_path)
    ask_server(tmp_path, servers[0], 'moved')
    assert servers[0].requests[0][1] == f'Bearer {KEY}'
    authorizations = {authorization for _, authorization in servers[1].requests}
    assert authorizations == {None}


def test_a_key_that_no_header_may_hold_is_not_quoted(tmp_path, servers, monkeypatch):
    """The error of http.client would show it whole."""
    write_run(tmp_path)
    monkeypatch.setenv('LLM_API_KEY', f'{KEY}\nx')
    with pytest.raises(ValueError, match='LLM_API_KEY') as error:
        ask_server(tmp_path, servers[0])
    assert KEY not in str(error.value)
