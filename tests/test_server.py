# python -m pytest tests/test_server.py
# The page to try a run: each text gets its own answer, and nobody else gets any

import contextlib
import csv
import gzip
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, unquote

import numpy as np
import pytest
from browser import severe_messages
from conftest import ROOT, SLOW, start

from nanosentiment import Classifier, server
from nanosentiment.pairs import PAIR_MARK, join_pair

pytest_plugins = 'browser'

JSON = {'Content-Type': 'application/json'}
BYTES = {'Content-Type': 'application/octet-stream'}


class FakeClassifier:
    """Knows one word, and is as sure as the checksum of the text says: each text differs."""

    path = 'out/fake/best.pt'
    labels = ['bad', 'good']
    has_pairs = False
    windows = False
    temperature = 1.0
    checkpoint = {'dataset': 'fake', 'recipe': {'columns': ['body', 'mood']}}

    def __init__(self):
        self.calls = []  # lists of texts
        self.may_go_on = threading.Event()  # clear it, and classify waits
        self.may_go_on.set()

    def join(self, text):
        return join_pair(*text) if isinstance(text, tuple) else text

    def logits(self, texts, batch_size):
        n_awful = [text.count('awful') for text in texts]
        return np.array([[n, 0.5] for n in n_awful], dtype=np.float32)

    def classify(self, texts, threshold, batch_size):
        self.calls.append(texts)
        assert self.may_go_on.wait(30 * SLOW)
        return [self.answer(text) for text in texts]

    def answer(self, text):
        content = self.join(text)
        label, runner_up = ('bad', 'good') if 'awful' in content else ('good', 'bad')
        p = 0.5 + zlib.crc32(content.encode()) % 5000 / 10000
        both = {label: p, runner_up: 1 - p}
        rest = {'probability': p, 'runner_up': runner_up, 'probabilities': both}
        return {'text': text, 'label': label, 'truncated': False} | rest


@contextlib.contextmanager
def running(classifier, port=0, threshold=0.0):
    """A server in this process, in a thread of its own."""
    web_server = server.make_server(classifier, port, threshold, batch_size=64)
    thread = threading.Thread(target=web_server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    try:
        yield web_server
    finally:
        if hasattr(classifier, 'may_go_on'):
            classifier.may_go_on.set()
        web_server.shutdown()
        web_server.server_close()
        thread.join()


@pytest.fixture
def fake():
    """A server with a FakeClassifier, which is its .classifier."""
    with running(FakeClassifier()) as web_server:
        yield web_server


@pytest.fixture(scope='module')
def classifier(trained):
    return Classifier(trained.out_dir, device='cpu')


def port_of(web_server):
    return web_server.server_address[1]


def request(port, method, path, body=None, headers=None):
    """One request in a connection of its own -> status, headers and the body's bytes."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60 * SLOW)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def post(web_server, path, content):
    """A JSON value to /classify, or bytes to /table -> status and what came back from JSON."""
    if isinstance(content, bytes):
        status, _, body = request(port_of(web_server), 'POST', path, content, BYTES)
    else:
        status, _, body = request(port_of(web_server), 'POST', path, json.dumps(content), JSON)
    return status, json.loads(body)


def post_table(web_server, name, content, **parameters):
    """Sends a table that is accepted -> its text with answers, and what the page shows of it."""
    path = f'/table?name={quote(name)}'
    for parameter, value in parameters.items():
        path += f'&{parameter}={quote(value)}'
    status, headers, body = request(port_of(web_server), 'POST', path, content, BYTES)
    assert status == 200, body
    return body.decode(), json.loads(unquote(headers['X-Summary']))


def send_raw(web_server, data):
    """Bytes that no client would send -> all that comes back."""
    with socket.create_connection(web_server.server_address, timeout=30 * SLOW) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b''.join(parts).decode()


def wait_until(is_true):
    """Asserts that something becomes true."""
    end = time.monotonic() + 30 * SLOW
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


def check_error(status, content, *words):
    """An error is one line with a remedy. It has these words."""
    assert status >= 400
    line = content['error']
    assert '\n' not in line
    assert ';' in line, f'no remedy: {line}'
    for word in words:
        assert word in line


# -----------------------------------------------------------------------------
# texts


def test_texts_are_answered_in_their_order(fake):
    texts = ['an awful day', ' ', 'lovely', '']
    status, answers = post(fake, '/classify', texts)
    assert status == 200
    assert [answer['text'] for answer in answers] == texts
    assert [answer['label'] for answer in answers] == ['bad', '', 'good', '']
    assert answers[0] == fake.classifier.answer('an awful day')
    assert answers[1]['probability'] is None
    assert answers[1].keys() == answers[0].keys()


def test_no_texts_are_no_mistake(fake):
    assert post(fake, '/classify', []) == (200, [])


def test_the_answers_are_those_of_the_classifier(classifier):
    texts = ['late and awful', 'lovely, thanks', 'a purple moon', 'the parcel came ' * 30]
    with running(classifier, threshold=0.5) as web_server:
        status, answers = post(web_server, '/classify', texts)
        _, explained = post(web_server, '/classify?explain=1', texts)
    assert status == 200
    assert answers == classifier.classify(texts, threshold=0.5)
    assert [answer['label'] for answer in answers[:3]] == ['bad', 'good', 'odd']
    for text, answer, explained_answer in zip(texts, answers, explained):
        explanation = explained_answer.pop('explanation')
        assert explained_answer == answer
        assert ''.join(explanation['pieces']) == text
        assert len(explanation['weights']) == len(explanation['pieces'])
        assert explanation['kind'] == 'words'


def test_the_word_that_decides_has_the_largest_weight(fake):
    _, answers = post(fake, '/classify?explain=1', ['an awful day', ' '])
    weights = answers[0]['explanation']['weights']
    assert weights[1] > 0
    assert weights[0] == weights[2] == 0
    assert answers[1]['explanation'] is None


def test_pairs_are_for_a_run_that_was_trained_with_them(fake):
    pair = ['lovely', 'but awful']
    status, content = post(fake, '/classify', [pair])
    check_error(status, content, 'item 0', 'single')
    fake.classifier.has_pairs = True
    _, answers = post(fake, '/classify?explain=1', [pair, 'lovely', ['lovely', ' ']])
    assert fake.classifier.calls == [['lovely', ('lovely', 'but awful')]]
    assert [answer['label'] for answer in answers] == ['bad', 'good', '']
    assert answers[0]['text'] == pair
    assert answers[0]['explanation']['pieces'] == ['lovely', PAIR_MARK, 'but ', 'awful']


def test_half_a_character_is_replaced(fake):
    """JSON can hold it, but UTF-8, in which the answer is sent, cannot."""
    status, _, body = request(port_of(fake), 'POST', '/classify', '["caf\\ud800"]', JSON)
    assert status == 200
    assert json.loads(body)[0]['text'] == 'caf\ufffd'


def test_none_of_200_requests_from_8_threads_is_lost_or_mixed_up(classifier):
    words = ['late', 'awful', 'broken', 'lovely', 'thanks', 'purple', 'moon', 'parcel']
    texts = [f'{words[i % 8]} {words[i // 8 % 8]} {words[i % 5]} box {i}' for i in range(200)]
    alone = [classifier.classify([text])[0] for text in texts]
    with running(classifier) as web_server:

        def ask(text):
            return post(web_server, '/classify', [text])

        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(ask, texts))
    assert results == [(200, [answer]) for answer in alone]


def test_a_connection_serves_many_requests(fake):
    connection = http.client.HTTPConnection('127.0.0.1', port_of(fake), timeout=30 * SLOW)
    with contextlib.closing(connection):
        for i in range(3):
            connection.request('POST', '/classify', json.dumps([f'text {i}']), JSON)
            own_socket = connection.sock
            answers = json.loads(connection.getresponse().read())
            assert answers == [fake.classifier.answer(f'text {i}')]
            assert connection.sock is own_socket


# -----------------------------------------------------------------------------
# what is refused


@pytest.mark.parametrize(
    'path, body, word',
    [
        ('/classify', b'no JSON', 'no JSON'),
        ('/classify', b'["\xff"]', 'no JSON'),
        ('/classify', b'[NaN]', 'no JSON'),
        ('/classify', b'[' * 100_000, 'no JSON'),
        ('/classify', b'{"text": "a"}', 'an object'),
        ('/classify', b'"a text"', 'a text'),
        ('/classify', b'["a", 3]', 'item 1 is a number'),
        ('/classify', b'[null]', 'item 0 is null'),
        ('/classify?explian=1', b'["a"]', 'explian'),
        ('/classify?explain=yes', b'["a"]', 'explain=yes'),
    ],
)
def test_a_body_that_is_no_list_of_texts_is_refused_in_one_line(fake, path, body, word):
    status, _, answer = request(port_of(fake), 'POST', path, body, JSON)
    assert status == 400
    check_error(status, json.loads(answer), word)


def test_a_pair_of_other_things_is_refused(fake):
    fake.classifier.has_pairs = True
    for item in (['a'], ['a', 1], ['a', 'b', 'c']):
        status, content = post(fake, '/classify', ['x', item])
        assert status == 400
        check_error(status, content, 'item 1')


@pytest.mark.parametrize(
    'path, texts, word',
    [
        ('/classify', ['a'] * 1001, '1,001'),
        ('/classify?explain=1', ['a'] * 51, '51'),
        ('/classify?explain=1', ['short', 'a' * 20_001], 'item 1'),
        ('/classify', ['a' * 4_000_000], '4,000,004'),
    ],
)
def test_more_than_a_request_may_have_is_refused(fake, path, texts, word):
    status, content = post(fake, path, texts)
    assert status == 413
    check_error(status, content, word)
    assert fake.classifier.calls == []


def test_as_much_as_a_request_may_have_is_answered(fake):
    texts = [f'text {i}' for i in range(1000)]
    status, answers = post(fake, '/classify', texts)
    assert status == 200
    assert answers == [fake.classifier.answer(text) for text in texts]


def test_a_client_that_sends_too_much_hears_why(fake):
    """A connection that is closed while the client still sends would lose the answer."""
    status, content = post(fake, '/table?name=rows.csv', b'text\n' * 10_400_000)
    assert status == 413
    check_error(status, content, '50,000,000')


@pytest.mark.parametrize(
    'method, path, status',
    [
        ('GET', '/nothing', 404),
        ('GET', '/../server.py', 404),
        ('GET', '/report.html', 404),
        ('POST', '/nothing', 404),
        ('GET', '/classify', 405),
        ('PUT', '/classify', 405),
        ('DELETE', '/table', 405),
        ('POST', '/', 405),
        ('HEAD', '/', 405),
    ],
)
def test_what_is_not_there_is_refused(fake, method, path, status):
    answered, headers, body = request(port_of(fake), method, path)
    assert answered == status
    if method != 'HEAD':
        check_error(answered, json.loads(body), path.partition('?')[0])
    if status == 405:
        assert headers['Allow'] in ('GET', 'POST')


def test_a_size_is_needed(fake):
    start_line = b'POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    chunked = b'Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
    assert ' 411 ' in send_raw(fake, start_line + b'Connection: close\r\n\r\n')
    assert ' 400 ' in send_raw(fake, start_line + b'Content-Length: many\r\n\r\n')
    with socket.create_connection(fake.server_address, timeout=30 * SLOW) as connection:
        connection.sendall(start_line + chunked)
        assert b' 411 ' in connection.recv(65536)


def test_what_is_no_request_gets_an_error_in_json(fake):
    answer = send_raw(fake, b'what is this\r\n\r\n')
    check_error(400, json.loads(answer))  # without a known version there are no headers
    answer = send_raw(fake, b'DANCE / HTTP/1.1\r\n\r\n')
    head, _, body = answer.partition('\r\n\r\n')
    assert ' 501 ' in head
    check_error(501, json.loads(body), 'DANCE')


# a page of another site can send these without asking
@pytest.mark.parametrize(
    'content_type', ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', None]
)
@pytest.mark.parametrize('path', ['/classify', '/table?name=rows.csv'])
def test_another_content_type_is_refused(fake, path, content_type):
    headers = {'Content-Type': content_type} if content_type else {}
    status, _, body = request(port_of(fake), 'POST', path, b'["a"]', headers)
    assert status == 415
    check_error(status, json.loads(body), 'application/')
    assert fake.classifier.calls == []


def test_no_other_page_is_allowed_to_send(fake):
    """A browser asks with OPTIONS before a page sends JSON to another server."""
    headers = {'Origin': 'http://evil.example', 'Access-Control-Request-Method': 'POST'}
    status, answered_headers, _ = request(port_of(fake), 'OPTIONS', '/classify', headers=headers)
    assert status == 403
    assert 'Access-Control-Allow-Origin' not in answered_headers


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:80', '127.0.0.1.example', ''])
def test_another_host_name_is_refused(fake, host):
    """A site can give its name the address 127.0.0.1, and then its page may read the answers."""
    for method, path in (('GET', '/'), ('GET', '/about'), ('POST', '/classify')):
        headers = JSON | {'Host': host}
        status, _, body = request(port_of(fake), method, path, b'["a"]', headers)
        assert status == 403
        check_error(status, json.loads(body), '127.0.0.1')
    assert fake.classifier.calls == []


@pytest.mark.parametrize('host', ['localhost', 'localhost:9000', '127.0.0.1'])
def test_a_name_of_this_machine_is_accepted(fake, host):
    """With `ssh -L 9000:localhost:8000` the port is another."""
    status, _, _ = request(port_of(fake), 'GET', '/about', headers={'Host': host})
    assert status == 200


def test_pages_of_other_origins_are_refused(fake):
    for origin in ('http://evil.example', 'http://127.0.0.1:1', 'null'):
        headers = JSON | {'Origin': origin}
        status, _, _ = request(port_of(fake), 'POST', '/classify', b'["a"]', headers)
        assert status == 403, origin
    headers = JSON | {'Origin': fake.address}
    assert request(port_of(fake), 'POST', '/classify', b'["a"]', headers)[0] == 200


def test_only_this_machine_can_connect(fake):
    assert fake.server_address[0] == '127.0.0.1'


# -----------------------------------------------------------------------------
# the page's files


def test_the_page_comes_with_strict_headers(fake):
    types = {'/': 'text/html', '/try.css': 'text/css', '/try.js': 'text/javascript'}
    for path, content_type in types.items():
        status, headers, body = request(port_of(fake), 'GET', path)
        assert status == 200
        assert len(body) > 1000
        assert headers.get_content_type() == content_type
        assert "default-src 'self'" in headers['Content-Security-Policy']
        assert 'unsafe-inline' not in headers['Content-Security-Policy']
        assert headers['X-Content-Type-Options'] == 'nosniff'
        assert headers['Cache-Control'] == 'no-store'


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere():
    with open(f'{ROOT}/nanosentiment/web/try.html', encoding='utf-8') as f:
        page = f.read()
    assert not re.search(r'\son\w+=|\sstyle=|<style|https?:', page)
    assert re.findall(r'<script[^>]*>', page) == ['<script src="/try.js" defer>']


def test_texts_and_labels_are_never_markup():
    with open(f'{ROOT}/nanosentiment/web/try.js', encoding='utf-8') as f:
        script = f.read()
    assert not re.search('innerHTML|outerHTML|insertAdjacentHTML|document.write|eval', script)


def test_about_tells_what_the_run_is(fake):
    status, _, body = request(port_of(fake), 'GET', '/about')
    assert status == 200
    assert json.loads(body) == {
        'run': 'out/fake/best.pt',
        'dataset': 'fake',
        'labels': ['bad', 'good'],
        'has_pairs': False,
        'windows': False,
        'threshold': 0.0,
        'max_table_bytes': 50_000_000,
    }


# -----------------------------------------------------------------------------
# tables


def test_a_table_comes_back_with_all_rows_in_their_order(fake):
    rows = []
    for i in range(5000):
        body = f'"awful", {i}\nü' if i % 3 == 0 else f'lovely {i}'
        rows.append([str(i), '' if i % 100 == 99 else body])
    table = io.StringIO(newline='')
    csv.writer(table).writerows([['id', 'body'], *rows])

    text, summary = post_table(fake, 'rows.csv', table.getvalue().encode())
    answered = list(csv.DictReader(io.StringIO(text, newline='')))
    assert [[row['id'], row['body']] for row in answered] == rows
    for row in answered:
        if row['body'] == '':
            assert (row['label'], row['reason']) == ('', 'no text')
            continue
        answer = fake.classifier.answer(row['body'])
        assert row['label'] == answer['label']
        assert float(row['probability']) == answer['probability']
    assert summary['name'] == 'rows.answers.csv'
    assert summary['counts'] == '4,950 of 5,000 rows classified, 0 cut as too long'
    assert dict(summary['labels']) == {'bad': 1650, 'good': 3300}
    assert 'rows.csv: 50 of 5,000 rows have no answer' in summary['notes'][-1]


def test_a_table_keeps_its_format(fake):
    text, summary = post_table(fake, 'rows.jsonl', b'{"body": "awful"}\n{"body": "x", "n": 1}\n')
    assert summary['name'] == 'rows.answers.jsonl'
    labels = [json.loads(line)['label'] for line in text.splitlines()]
    assert labels == ['bad', 'good']

    text, summary = post_table(fake, 'rows.tsv', b'id\tbody\n1\tawful\n')
    assert summary['name'] == 'rows.answers.tsv'
    assert text.splitlines()[1].split('\t')[:3] == ['1', 'awful', 'bad']

    text, summary = post_table(fake, 'lines.txt', b'awful\nlovely\n')
    assert summary['name'] == 'lines.answers.csv'
    assert [row['label'] for row in csv.DictReader(io.StringIO(text))] == ['bad', 'good']


def test_a_compressed_table_is_unpacked(fake):
    text, summary = post_table(fake, 'rows.csv.gz', gzip.compress(b'body\nawful\n'))
    assert summary['name'] == 'rows.answers.csv'
    assert 'bad' in text


def test_a_table_is_a_download_with_its_own_name(fake):
    path = '/table?name=' + quote('отзывы "1".csv')
    _, headers, _ = request(port_of(fake), 'POST', path, b'body\nawful\n', BYTES)
    name = quote('отзывы__1_.answers.csv')
    assert headers['Content-Disposition'] == f"attachment; filename*=UTF-8''{name}"
    assert headers.get_content_type() == 'text/csv'


def test_a_missing_column_is_said_with_those_there_are(fake):
    table = b'review,n\nawful,1\n'
    status, content = post(fake, '/table?name=rows.csv', table)
    assert status == 400
    check_error(status, content, "rows.csv: there is no column 'body'", 'review, n')
    assert content['columns'] == ['review', 'n']
    text, _ = post_table(fake, 'rows.csv', table, text_column='review')
    assert 'awful,1,bad' in text


def test_a_table_of_pairs_needs_both_columns(fake):
    fake.classifier.has_pairs = True
    columns = {'text_column': 'a', 'text_pair_column': 'b'}
    text, _ = post_table(fake, 'rows.csv', b'a,b\nlovely,awful\nx,\n', **columns)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row['label'] for row in rows] == ['bad', '']
    assert rows[1]['reason'] == 'no second text'


@pytest.mark.parametrize(
    'name, content, word',
    [
        ('rows.csv', b'', 'rows.csv'),
        ('rows.csv', b'id,body\n', 'has no rows'),
        ('rows.xlsx', b'PK\x03\x04', 'spreadsheet'),
        ('rows.parquet', b'PAR1\0', 'Parquet'),
        ('rows.csv.gz', gzip.compress(b'body\nawful\n' * 1000, mtime=0)[:60], 'rows.csv.gz'),
        ('../../rows.json', b'{"a": ', 'rows.json'),
    ],
    ids=['empty', 'no rows', 'spreadsheet', 'Parquet', 'cut off', 'JSON'],
)
def test_an_error_in_a_table_names_the_file_and_not_our_folder(fake, name, content, word):
    status, answer = post(fake, f'/table?name={quote(name)}', content)
    assert status == 400
    check_error(status, answer, word)
    assert 'nanosentiment-server' not in answer['error']


def test_the_name_of_a_file_is_made_safe():
    names = {
        'rows.csv': 'rows.csv',
        '../../etc/passwd': 'passwd',
        'C:\\data\\My rows.CSV': 'My_rows.CSV',
        '..': 'table.csv',
        '': 'table.csv',
        '.answers': 'answers',
        'a\0b\n.csv': 'a_b_.csv',
        'x' * 300 + '.csv.gz': 'x' * 53 + '.csv.gz',
    }
    assert {name: server.safe_name(name) for name in names} == names


def test_no_table_stays_on_the_disk(fake):
    def files_in(folder):
        return [name for name in os.listdir(folder) if name != '.lock']

    post_table(fake, 'rows.csv', b'body\nawful\n')
    post(fake, '/table?name=rows.csv', b'')
    wait_until(lambda: files_in(fake.folder) == [])
    with running(FakeClassifier()) as web_server:
        assert os.path.isdir(web_server.folder)
    assert not os.path.exists(web_server.folder)


# -----------------------------------------------------------------------------
# one model, many clients


def hold(web_server):
    """The model waits, with a first request in its hands. Returns that request's thread."""
    classifier = web_server.classifier
    classifier.may_go_on.clear()
    thread = threading.Thread(target=post, args=(web_server, '/classify', ['the first']))
    thread.start()
    wait_until(lambda: classifier.calls == [['the first']])
    return thread


def test_of_too_many_requests_the_last_is_told_to_come_back(fake):
    thread = hold(fake)
    texts = [f'text {i}' for i in range(32)]
    with ThreadPoolExecutor(32) as threads:
        waiting = [threads.submit(post, fake, '/classify', [text]) for text in texts]
        wait_until(lambda: fake.n_requests == 33)
        status, headers, body = request(port_of(fake), 'POST', '/classify', b'["late"]', JSON)
        fake.classifier.may_go_on.set()
        results = [future.result() for future in waiting]
    thread.join()
    assert status == 503
    assert headers['Retry-After'] == '1'
    check_error(status, json.loads(body), '32')
    assert results == [(200, [fake.classifier.answer(text)]) for text in texts]
    assert post(fake, '/classify', ['later'])[0] == 200


def test_a_long_table_lets_others_have_their_turn(fake):
    fake.classifier.may_go_on.clear()
    table = b'body\n' + b'awful\n' * 1000
    with ThreadPoolExecutor(2) as threads:
        table_request = threads.submit(post_table, fake, 'rows.csv', table)
        wait_until(lambda: len(fake.classifier.calls) == 1)
        text_request = threads.submit(post, fake, '/classify', ['a text'])
        wait_until(lambda: fake.n_requests == 2)
        time.sleep(0.2)  # from there to the queue of the model
        fake.classifier.may_go_on.set()
        assert text_request.result()[0] == 200
        text, _ = table_request.result()
    assert fake.classifier.calls[1] == ['a text']
    assert text.count('bad') == 1000


def test_a_client_that_breaks_off_costs_nothing(fake, capsys):
    thread = hold(fake)
    connection = http.client.HTTPConnection('127.0.0.1', port_of(fake))
    connection.request('POST', '/classify', b'["who is gone"]', JSON)
    wait_until(lambda: fake.n_requests == 2)
    connection.close()
    # another one goes away in the middle of a body
    with socket.create_connection(fake.server_address) as half:
        half.sendall(b'POST /table HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n')
        half.sendall(b'Content-Type: application/octet-stream\r\n\r\ntext')
    fake.classifier.may_go_on.set()
    thread.join()
    wait_until(lambda: fake.n_requests == 0)
    assert post(fake, '/classify', ['next'])[0] == 200
    assert fake.classifier.calls == [['the first'], ['next']]
    assert capsys.readouterr().err == ''


def test_a_client_that_sends_nothing_is_let_go(fake, monkeypatch):
    monkeypatch.setattr(server.Handler, 'timeout', 0.2)
    with socket.create_connection(fake.server_address, timeout=30 * SLOW) as connection:
        assert connection.recv(1) == b''
    with socket.create_connection(fake.server_address, timeout=30 * SLOW) as connection:
        connection.sendall(b'POST /classify HTTP/1.1\r\nHost: localhost\r\n')
        assert connection.recv(1) == b''


def test_nothing_is_logged(fake, capsys):
    post(fake, '/classify', ['a secret'])
    post(fake, '/classify', ['a secret', 3])
    post(fake, '/table?name=secret.csv', b'')
    captured = capsys.readouterr()
    assert captured.out == captured.err == ''


def test_an_error_of_the_program_is_told_in_one_line(fake, capsys, monkeypatch):
    def fail(texts, threshold, batch_size):
        raise RuntimeError('a bug')

    monkeypatch.setattr(fake.classifier, 'classify', fail)
    status, content = post(fake, '/classify', ['a'])
    assert status == 500
    check_error(status, content)
    assert 'a bug' not in content['error']
    assert 'RuntimeError: a bug' in capsys.readouterr().err


def test_an_error_of_the_classifier_has_its_own_line(fake, capsys, monkeypatch):
    def fail(texts, threshold, batch_size):
        raise ValueError('the weights are damaged; train again')

    monkeypatch.setattr(fake.classifier, 'classify', fail)
    assert post(fake, '/classify', ['a']) == (
        500,
        {'error': 'the weights are damaged; train again'},
    )
    assert post(fake, '/table?name=rows.csv', b'body\na\n')[0] == 500
    assert capsys.readouterr().err == ''


def test_a_full_disk_is_told(fake, monkeypatch):
    def fail(dir):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(server.tempfile, 'TemporaryDirectory', fail)
    status, content = post(fake, '/table?name=rows.csv', b'body\na\n')
    assert status == 507
    check_error(status, content, 'No space left')


# -----------------------------------------------------------------------------
# begin and end


def test_a_port_in_use_is_told_with_the_remedy(fake):
    with pytest.raises(ValueError, match=f'port {port_of(fake)} .* in use .*; .*--port='):
        server.make_server(FakeClassifier(), port_of(fake))


def test_a_temporary_folder_that_cannot_be_made_is_no_matter_of_the_port(monkeypatch):
    def refuse(parent, prefix):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(server, 'temporary_folder', refuse)
    with pytest.raises(ValueError, match='no folder can be made in .*; .*TMPDIR'):
        server.make_server(FakeClassifier(), 0)


def test_what_is_computed_at_the_end_is_sent_and_what_waits_is_told():
    with running(FakeClassifier()) as web_server, ThreadPoolExecutor(3) as threads:
        web_server.classifier.may_go_on.clear()
        computed = threads.submit(post, web_server, '/classify', ['computed'])
        wait_until(lambda: web_server.classifier.calls == [['computed']])
        waiting = threads.submit(post, web_server, '/classify', ['waiting'])
        wait_until(lambda: web_server.n_requests == 2)
        time.sleep(0.2)
        web_server.shutdown()
        end = threads.submit(web_server.server_close)
        status, content = waiting.result()
        web_server.classifier.may_go_on.set()
        end.result()
        assert computed.result() == (200, [web_server.classifier.answer('computed')])
    assert status == 503
    check_error(status, content, 'ending')


def start_serving(out_dir):
    """sample_classify.py --serve=True -> its process and port, as soon as it listens."""
    flags = [f'--out_dir={out_dir}', '--serve=True', '--port=0', '--device=cpu']
    process = start('sample_classify.py', *flags, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        address = re.search(r'try it at http://127\.0\.0\.1:(\d+) - Ctrl-C ends it', line)
        if address:
            return process, int(address[1])
    raise AssertionError(f'exit status {process.wait()}')


def break_off(port):
    """Asks many times and goes away at once, so that the answers find nobody."""
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' * 100)


@pytest.mark.skipif(os.name != 'posix', reason='Windows ends a process without asking it')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well_and_frees_the_port(trained, number):
    process, port = start_serving(trained.out_dir)
    try:
        break_off(port)
        idle = socket.create_connection(('127.0.0.1', port))  # does not keep it running
        status, _, body = request(port, 'POST', '/classify', b'["late and awful"]', JSON)
        assert (status, json.loads(body)[0]['label']) == (200, 'bad')
        process.send_signal(number)
        _, err = process.communicate(timeout=30 * SLOW)
    finally:
        process.kill()
    idle.close()
    assert process.returncode == 0
    assert err == f'http://127.0.0.1:{port} is closed\n'
    server.make_server(FakeClassifier(), port).server_close()


# a model that computes for a long time
SLOW_SERVER = f"""
import sys
sys.path.append({ROOT!r})
from test_server import FakeClassifier, server
classifier = FakeClassifier()
classifier.may_go_on.clear()
server.serve(classifier, port=0)
"""


@pytest.mark.skipif(os.name != 'posix', reason='Windows ends a process without asking it')
def test_a_second_signal_ends_it_at_once():
    process = start(['-c', SLOW_SERVER], cwd=f'{ROOT}/tests', stderr=subprocess.PIPE, text=True)
    port = int(re.search(r':(\d+) ', process.stderr.readline())[1])
    body = b'POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.sendall(body + b'Content-Length: 5\r\n\r\n["a"]')
        time.sleep(0.5 * SLOW)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, 'what is being computed is finished first'
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10 * SLOW) == -signal.SIGINT
    process.stderr.close()


# -----------------------------------------------------------------------------
# the page, in a browser


# keys as selenium has them
NO_KEY, BACKSPACE, CONTROL, ENTER = '\ue000', '\ue003', '\ue009', '\ue007'
CONTROL_ENTER = CONTROL + ENTER


class Page:
    """The page of a server in a browser."""

    def __init__(self, chrome, web_server):
        self.chrome = chrome
        severe_messages(chrome)  # those of earlier tests
        chrome.get(web_server.address)
        wait_until(lambda: self.all('#examples button'))

    def all(self, selector):
        return self.chrome.find_elements('css selector', selector)

    def one(self, selector):
        return self.chrome.find_element('css selector', selector)

    def is_shown(self, selector):
        return self.one(selector).is_displayed()

    def write(self, text, selector='#first'):
        """Types a text in place of what is there."""
        self.one(selector).send_keys(CONTROL + 'a', NO_KEY, BACKSPACE, text)

    def download(self, folder):
        """Clicks on the link to the file with answers -> its text."""
        wait_until(lambda: self.is_shown('#download'))
        behavior = {'behavior': 'allow', 'downloadPath': str(folder)}
        self.chrome.execute_cdp_cmd('Browser.setDownloadBehavior', behavior)
        link = self.one('#download')
        link.click()
        path = folder / link.get_attribute('download')
        wait_until(path.exists)  # until it is complete it has another name
        return path.read_text(encoding='utf-8')


@pytest.fixture
def page(chrome, fake):
    """The page of a FakeClassifier. A test ends without errors in the browser's console."""
    page = Page(chrome, fake)
    yield page
    assert severe_messages(chrome) == []


def test_the_page_answers_as_one_types(page):
    page.write('an awful day')
    wait_until(lambda: page.is_shown('#words-shown'))
    assert page.one('#label').text == 'bad'
    assert page.one('#words').text == 'an awful day'
    assert [mark.text for mark in page.all('#words mark.for')] == ['awful']
    assert page.all('#words mark.against') == []
    assert len(page.all('#bars li')) == 2
    assert page.one('#legend-label').text == 'bad'
    page.write('')
    wait_until(lambda: not page.is_shown('#answer'))


def test_the_page_uses_a_real_run(chrome, classifier):
    with running(classifier) as web_server:
        page = Page(chrome, web_server)
        page.write('late and awful' + CONTROL_ENTER)
        wait_until(lambda: page.is_shown('#words-shown'))
        assert page.one('#label').text == 'bad'
        assert page.one('#words').text == 'late and awful'
        assert len(page.all('#bars li')) == 3
        assert len(page.all('#words mark.for')) > 0
        assert page.one('#run').text in classifier.path
        assert severe_messages(chrome) == []


def test_an_earlier_text_comes_back_with_its_answer(page, fake):
    page.write('an awful day' + CONTROL_ENTER)
    wait_until(lambda: page.is_shown('#words-shown'))
    page.all('#examples button')[0].click()
    wait_until(lambda: len(page.all('#history li')) == 2 and page.is_shown('#words-shown'))
    assert page.one('#label').text == 'good'

    n_calls = len(fake.classifier.calls)
    page.all('#history button')[1].click()
    assert page.one('#first').get_property('value') == 'an awful day'
    assert page.one('#label').text == 'bad'
    assert page.one('#words').text == 'an awful day'
    assert len(fake.classifier.calls) == n_calls

    page.one('#clear').click()
    assert page.all('#history li') == []


def test_the_answer_of_an_older_text_is_never_shown(page, fake):
    page.write('an awful day')
    wait_until(lambda: page.is_shown('#words-shown'))
    fake.classifier.may_go_on.clear()
    page.write('an awful night')
    assert not page.is_shown('#answer')
    wait_until(lambda: fake.classifier.calls[-1] == ['an awful night'])
    page.write('a lovely day')
    fake.classifier.may_go_on.set()
    wait_until(lambda: page.is_shown('#words-shown'))
    assert page.one('#label').text == 'good'
    assert page.one('#words').text == 'a lovely day'


def test_a_chosen_file_comes_back_with_labels(page, tmp_path):
    (tmp_path / 'rows.csv').write_text('body,n\nawful,1\nlovely,2\n,3\n')
    page.one('#file').send_keys(str(tmp_path / 'rows.csv'))
    rows = list(csv.DictReader(io.StringIO(page.download(tmp_path))))
    assert [row['label'] for row in rows] == ['bad', 'good', '']
    assert '2 of 3 rows classified' in page.one('#table-status').text
    assert 'no text' in page.one('#table-notes').text
    assert page.one('#download').get_attribute('download') == 'rows.answers.csv'


DROP = """
const transfer = new DataTransfer();
transfer.items.add(new File(['body\\nawful\\n'], 'dropped.csv'));
const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
document.body.dispatchEvent(new DragEvent('dragover', options));
const isOverlayShown = !document.getElementById('drop').hidden;
document.body.dispatchEvent(new DragEvent('drop', options));
return isOverlayShown;
"""


def test_a_file_can_be_dropped_anywhere(page, tmp_path):
    assert page.chrome.execute_script(DROP)
    assert 'awful,bad' in page.download(tmp_path)
    assert not page.is_shown('#drop')
    assert page.one('#download').get_attribute('download') == 'dropped.answers.csv'


def test_a_missing_column_is_chosen_on_the_page(page, tmp_path):
    (tmp_path / 'rows.csv').write_text('n,review\n1,awful\n')
    page.one('#file').send_keys(str(tmp_path / 'rows.csv'))
    wait_until(lambda: page.is_shown('#columns'))
    assert "there is no column 'body'" in page.one('#table-error').text
    severe_messages(page.chrome)  # the browser notes the status 400

    page.all('#text-column option')[1].click()
    page.one('#columns button').click()
    assert '1,awful,bad' in page.download(tmp_path)
    assert not page.is_shown('#table-error')


def test_an_error_is_shown_in_words(page, fake, monkeypatch):
    def fail(texts, threshold, batch_size):
        raise ValueError('the weights are damaged; train again')

    monkeypatch.setattr(fake.classifier, 'classify', fail)
    page.write('awful' + CONTROL_ENTER)
    wait_until(lambda: page.is_shown('#error'))
    assert page.one('#error').text == 'the weights are damaged; train again'
    assert not page.is_shown('#answer')
    severe_messages(page.chrome)


def test_two_texts_are_a_pair_on_the_page(chrome):
    classifier = FakeClassifier()
    classifier.has_pairs = True
    with running(classifier) as web_server:
        page = Page(chrome, web_server)
        page.write('lovely')
        page.write('but awful', '#second')
        wait_until(lambda: page.is_shown('#words-shown'))
        assert page.one('#words').text == 'lovely | but awful'
        assert page.one('#label').text == 'bad'
        assert severe_messages(chrome) == []


def test_markup_in_texts_and_labels_is_shown_as_it_is(chrome, monkeypatch):
    markup = '<img src=x onerror=alert(1)>'
    monkeypatch.setattr(FakeClassifier, 'labels', [markup, 'good'])
    classifier = FakeClassifier()
    answer = classifier.answer('awful')
    answer['label'] = markup
    answer['probabilities'] = {markup: 0.75, 'good': 0.25}
    monkeypatch.setattr(classifier, 'answer', lambda text: answer | {'text': text})
    with running(classifier) as web_server:
        page = Page(chrome, web_server)
        page.write(f'awful {markup}' + CONTROL_ENTER)
        wait_until(lambda: page.is_shown('#words-shown'))
        assert page.one('#label').text == markup
        assert page.one('#words').text == f'awful {markup}'
        assert page.all('img') == []
        assert severe_messages(chrome) == []


def test_the_page_fits_a_phone(page):
    page.write('an awful day' + CONTROL_ENTER)
    wait_until(lambda: page.is_shown('#words-shown'))
    size = {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': True}
    page.chrome.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    try:
        width = page.chrome.execute_script('return document.documentElement.scrollWidth')
    finally:
        page.chrome.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    assert width == 360
