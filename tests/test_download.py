# python -m pytest tests/test_download.py
"""
A download is whole and checked or it is not there, and a dead server is given up soon.

All of it happens against a server on this machine, without a network.
"""

import base64
import hashlib
import http.server
import io
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager

import pytest
from conftest import SLOW

from nanosentiment import datasets, download
from nanosentiment.datasets import DATASETS, find_raw
from nanosentiment.download import (
    SameHostRedirect,
    Unreachable,
    fetch,
    read_response,
    save_response,
    split_password,
)

BODY = b'sentence\tlabel\ngood\t1\n' * 1000
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()
server_may_stop = threading.Event()


def zip_archive():
    with io.BytesIO() as f:
        with zipfile.ZipFile(f, 'w') as archive:
            archive.writestr('SST-2/train.tsv', BODY)
            archive.writestr('../evil.tsv', b'outside of the folder')
        return f.getvalue()


ZIP = zip_archive()


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how the server behaves: /404, /silent, /short, /good ..."""

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        behaviour = self.path.strip('/').split('/')[0]
        self.close_connection = True
        if behaviour.isdigit():
            self.send_error(int(behaviour))
        elif behaviour == 'moved':
            self.send_response(302)
            self.send_header('Location', '/good')
            self.send_header('Content-Length', '0')
            self.end_headers()
        elif behaviour == 'silent':
            server_may_stop.wait(20 * SLOW)
        elif behaviour == 'garbage':
            self.wfile.write(b'this is not http\r\n\r\n')
        elif behaviour in ('chunks', 'broken_chunks', 'chunks_from_100'):
            self.send_chunks(behaviour)
        else:
            self.send_body(behaviour)

    def send_chunks(self, behaviour):
        """A body of unknown length, in one chunk and an empty last one."""
        body = BODY
        if behaviour == 'chunks_from_100':
            body = BODY[100:]
            self.send_response(206)
            self.send_header('Content-Range', f'bytes 100-{len(BODY) - 1}/{len(BODY)}')
        else:
            self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        self.wfile.write(b'%x\r\n' % len(body))
        if behaviour == 'broken_chunks':
            self.wfile.write(body[:100])
        else:
            self.wfile.write(body + b'\r\n0\r\n\r\n')

    def send_body(self, behaviour):
        body = ZIP if behaviour == 'zip' else BODY
        length = len(body)
        if behaviour in ('short', 'stalled'):
            length += 1000  # more is announced than comes
        self.send_response(200)
        self.send_header('Content-Length', str(length))
        self.end_headers()
        self.wfile.write(body)
        if behaviour == 'stalled':
            self.wfile.flush()
            server_may_stop.wait(20 * SLOW)


@pytest.fixture(scope='module')
def server():
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_port}'
        server_may_stop.set()
        httpd.shutdown()


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch):
    monkeypatch.setattr(download, 'TIMEOUT_S', 0.5 * SLOW)
    monkeypatch.setattr(download, 'RETRY_WAIT_S', 0.04 * SLOW)
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.delenv('NANOSENTIMENT_RAW', raising=False)


@contextmanager
def fails(folder):
    """The error says what the user can do, comes soon, and leaves no file behind."""
    started = time.perf_counter()
    with pytest.raises(Unreachable) as error:
        yield error
    assert time.perf_counter() - started < 6 * download.TIMEOUT_S
    message = str(error.value)
    assert 'cannot download http' in message
    assert message.endswith('; buy it')
    assert '\n' not in message
    assert not [path for path in folder.rglob('*') if path.is_file()]


# -----------------------------------------------------------------------------
# files that arrive


@pytest.mark.parametrize('digest', [MD5, SHA256])
@pytest.mark.parametrize('behaviour', ['good', 'moved', 'chunks'])
def test_a_good_file_arrives(tmp_path, server, behaviour, digest):
    """Checked by md5, which GLUE gives, or sha256; the folder may not be there yet."""
    path = tmp_path / 'new' / 'train.tsv'
    assert fetch(f'{server}/{behaviour}', str(path), digest) == str(path)
    assert path.read_bytes() == BODY
    assert os.listdir(path.parent) == ['train.tsv']


def test_a_bare_file_name_is_enough(tmp_path, server, monkeypatch):
    """os.path.dirname('train.tsv') is '', which os.makedirs refuses."""
    monkeypatch.chdir(tmp_path)
    fetch(f'{server}/good', 'train.tsv', MD5)
    assert (tmp_path / 'train.tsv').read_bytes() == BODY


def test_without_a_checksum_the_file_is_taken_and_its_sha256_printed(tmp_path, server, capsys):
    fetch(f'{server}/good', str(tmp_path / 'train.tsv'))
    assert f'{server}/good has sha256 {SHA256}' in capsys.readouterr().err
    assert (tmp_path / 'train.tsv').read_bytes() == BODY


def test_the_sha256_that_is_printed_for_a_member_is_called_the_archives(tmp_path, server, capsys):
    """It is the one to give as digest; the member's own would be refused."""
    fetch(f'{server}/zip#SST-2/train.tsv', str(tmp_path / 'train.tsv'))
    digest = hashlib.sha256(ZIP).hexdigest()
    printed = capsys.readouterr().err
    assert f'{server}/zip has sha256 {digest}' in printed
    assert 'train.tsv has sha256' not in printed


def test_a_part_is_continued_in_chunks(tmp_path, server):
    """A server that compresses or streams gives no Content-Length for the rest either."""
    path = tmp_path / 'train.tsv'
    (tmp_path / 'train.tsv.part').write_bytes(BODY[:100])
    fetch(f'{server}/chunks_from_100', str(path), SHA256, keep=True)
    assert path.read_bytes() == BODY


def test_a_part_that_the_server_does_not_continue_is_replaced(tmp_path, server):
    """It sends the whole file, of which nothing may be appended to what was here."""
    path = tmp_path / 'train.tsv'
    (tmp_path / 'train.tsv.part').write_bytes(b'x' * (len(BODY) + 100))
    fetch(f'{server}/good', str(path), SHA256, keep=True)
    assert path.read_bytes() == BODY


class FakeResponse(io.BytesIO):
    def __init__(self, body, headers):
        super().__init__(body)
        self.headers = headers


@pytest.mark.parametrize('n_kept', [0, 100])
def test_the_bytes_of_a_response_are_counted_right(tmp_path, n_kept):
    """A count that went on from the old part would call a whole file broken off."""
    path = tmp_path / 'train.tsv.part'
    path.write_bytes(b'x' * n_kept)
    response = FakeResponse(BODY, {'Content-Length': str(len(BODY))})
    n_bytes, error = download.save_response(response, str(path), n_kept)
    assert (n_bytes, error) == (len(BODY), None)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    'total, is_terminal, printed',
    [
        (0, False, '5 MB\n'),
        (8_000_000, False, '5 of 8 MB\n'),
        (8_000_000, True, '5 of 8 MB\r'),
    ],
)
def test_progress_is_printed_in_megabytes(total, is_terminal, printed, capsys):
    """A server that streams does not tell the total."""
    download.print_progress(5_000_000, total, is_terminal)
    assert capsys.readouterr().err == printed


def test_the_progress_line_of_a_terminal_is_ended(tmp_path, monkeypatch, capsys):
    """Otherwise the next message is written over it."""
    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(download.time, 'time', lambda: next(times))
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    response = FakeResponse(BODY, {})
    download.save_response(response, str(tmp_path / 'part'), 0)
    assert capsys.readouterr().err == '0 MB\r\n'


def test_a_member_of_a_zip_archive_is_extracted(tmp_path, server):
    """GLUE's data sets are zip archives; the checksum is the archive's."""
    digest = hashlib.sha256(ZIP).hexdigest()
    path = tmp_path / 'sst2' / 'train.tsv'
    fetch(f'{server}/zip#SST-2/train.tsv', str(path), digest)
    assert path.read_bytes() == BODY
    assert os.listdir(path.parent) == ['train.tsv']


def test_a_member_cannot_leave_its_folder(tmp_path, server):
    path = tmp_path / 'sst2' / 'train.tsv'
    fetch(f'{server}/zip#../evil.tsv', str(path), hashlib.sha256(ZIP).hexdigest())
    assert [file for file in tmp_path.rglob('*') if file.is_file()] == [path]


# -----------------------------------------------------------------------------
# files that do not


@pytest.mark.parametrize('behaviour', ['404', '500', 'short', 'broken_chunks', 'garbage'])
def test_a_file_that_does_not_arrive_whole_is_not_kept(tmp_path, server, behaviour):
    """Half a training file is a valid smaller one: it would train, and nobody would notice."""
    with fails(tmp_path):
        fetch(f'{server}/{behaviour}', str(tmp_path / 'train.tsv'), MD5, 'buy it')


def test_a_file_with_a_wrong_checksum_is_not_kept(tmp_path, server):
    """The login page of a hotel's network answers every request."""
    with fails(tmp_path) as error:
        fetch(f'{server}/good', str(tmp_path / 'train.tsv'), '0' * 64, 'buy it')
    assert SHA256 in str(error.value)
    assert '0' * 64 in str(error.value)


def test_a_failed_download_leaves_the_old_file_alone(tmp_path, server):
    (tmp_path / 'old.tsv').write_text('old')
    with pytest.raises(Unreachable):
        fetch(f'{server}/good', str(tmp_path / 'old.tsv'), '0' * 32)
    assert (tmp_path / 'old.tsv').read_text() == 'old'
    assert os.listdir(tmp_path) == ['old.tsv']


def test_an_archive_without_the_member_is_not_kept(tmp_path, server):
    path = str(tmp_path / 'dev.tsv')
    with fails(tmp_path):
        fetch(f'{server}/zip#SST-2/dev.tsv', path, hashlib.sha256(ZIP).hexdigest(), 'buy it')
    with fails(tmp_path):  # the right checksum, but not an archive
        fetch(f'{server}/good#SST-2/dev.tsv', path, MD5, 'buy it')


@pytest.mark.parametrize('behaviour', ['silent', 'stalled'])
def test_a_server_that_stops_answering_is_given_up(tmp_path, server, behaviour):
    """Many firewalls accept a connection and send nothing: the first command must not hang."""
    with fails(tmp_path):
        fetch(f'{server}/{behaviour}', str(tmp_path / 'train.tsv'), MD5, 'buy it')


def test_a_host_name_that_is_never_found_is_given_up(tmp_path, monkeypatch):
    """Looking up a host name has no timeout of its own."""
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: server_may_stop.wait(20 * SLOW))
    with fails(tmp_path) as error:
        fetch('http://nowhere.example/x', str(tmp_path / 'x'), MD5, 'buy it')
    assert f'(no answer in {download.TIMEOUT_S + 1:g} s)' in str(error.value)


def test_a_server_that_cannot_be_reached_is_not_tried_again(tmp_path, monkeypatch):
    """Whoever works without a network should not wait to be told so."""
    n_requests = []

    def refuse(url, start, token):
        n_requests.append(1)
        raise urllib.error.URLError('connection refused')

    monkeypatch.setattr(download, 'open_url', refuse)
    with fails(tmp_path):
        fetch('http://127.0.0.1:9/x', str(tmp_path / 'x'), MD5, 'buy it')
    assert len(n_requests) == 1


def test_an_error_without_a_message_is_named_by_its_type(tmp_path, monkeypatch):
    def refuse(url, start, token):
        raise ConnectionAbortedError

    monkeypatch.setattr(download, 'open_url', refuse)
    with fails(tmp_path) as error:
        fetch('http://127.0.0.1:9/x', str(tmp_path / 'x'), MD5, 'buy it')
    assert '(ConnectionAbortedError)' in str(error.value)


def test_a_connection_that_fails_later_is_tried_again(tmp_path, server, monkeypatch):
    """A network that is gone for a second must not cost half a gigabyte."""
    open_url = download.open_url
    requests = []

    def refuse_second_and_third(url, start, token):
        requests.append(start)
        if len(requests) in (2, 3):
            raise urllib.error.URLError('network is unreachable')
        if len(requests) == 1:
            return open_url(f'{server}/broken_chunks', start, token)
        return open_url(f'{server}/chunks_from_100', start, token)

    monkeypatch.setattr(download, 'open_url', refuse_second_and_third)
    path = tmp_path / 'train.tsv'
    fetch(f'{server}/x', str(path), SHA256)
    assert path.read_bytes() == BODY
    assert requests == [0, 100, 100, 100]


def test_a_connection_that_stays_away_is_given_up(tmp_path, server, monkeypatch):
    open_url = download.open_url
    requests = []

    def refuse_all_but_the_first(url, start, token):
        requests.append(start)
        if len(requests) > 1:
            raise urllib.error.URLError('network is unreachable')
        return open_url(f'{server}/broken_chunks', start, token)

    monkeypatch.setattr(download, 'open_url', refuse_all_but_the_first)
    with fails(tmp_path) as error:
        fetch(f'{server}/x', str(tmp_path / 'train.tsv'), SHA256, 'buy it')
    assert 'network is unreachable' in str(error.value)
    assert len(requests) == 1 + download.MAX_ATTEMPTS


class FullDisk(io.BytesIO):
    def write(self, block):
        raise OSError('No space left on device')


def test_a_full_disk_is_not_a_broken_transfer(tmp_path, server, monkeypatch):
    """Trying again would fill it again."""
    n_opened = []

    def open_on_full_disk(path, mode):
        n_opened.append(1)
        return FullDisk()

    monkeypatch.setattr(download, 'open', open_on_full_disk, raising=False)
    with fails(tmp_path) as error:
        fetch(f'{server}/good', str(tmp_path / 'train.tsv'), SHA256, 'buy it')
    assert 'No space left on device' in str(error.value)
    assert len(n_opened) == 1


@pytest.mark.parametrize('behaviour', ['401', '403'])
def test_a_refusal_does_not_speak_of_hugging_face(tmp_path, server, behaviour):
    """A data set's server knows no HF_TOKEN."""
    with fails(tmp_path) as error:
        fetch(f'{server}/{behaviour}', str(tmp_path / 'train.tsv'), MD5, 'buy it')
    assert 'HF_TOKEN' not in str(error.value)


@pytest.mark.parametrize('url', ['http://127.0.0.1:9/x', 'http://', 'http:///x'])
def test_an_address_where_nobody_listens_fails(tmp_path, url):
    """The ordinary case without a network."""
    with fails(tmp_path):
        fetch(url, str(tmp_path / 'x'), MD5, 'buy it')


# -----------------------------------------------------------------------------
# the raw files of a data set


def test_raw_files_are_looked_for_in_order(tmp_path, server, monkeypatch):
    """The user's own folder, the project's, the shared one, and only then the network."""
    row = {
        'columns': ('a', 'b'),
        'train': ('t.tsv', MD5),
        'test': ('d.tsv', MD5),
        'url': server + '/good/{}',
    }
    monkeypatch.setitem(DATASETS, 'mine', row)
    monkeypatch.setattr(datasets, 'DATA_DIR', str(tmp_path / 'project'))
    monkeypatch.setenv('NANOSENTIMENT_RAW', str(tmp_path / 'shared'))
    own = tmp_path / 'own'
    folders = [own / 'mine', tmp_path / 'project' / 'mine', tmp_path / 'shared' / 'mine']
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / 't.tsv').write_text('x')
        (folder / 'd.tsv').write_text('x')

    for folder in folders:
        assert find_raw('mine', str(own))['train'] == str(folder / 't.tsv')
        (folder / 't.tsv').unlink()
    paths = find_raw('mine', str(own))
    assert paths == {'train': str(own / 'mine' / 't.tsv'), 'test': str(own / 'mine' / 'd.tsv')}
    assert list(paths) == ['train', 'test'], 'the labels are those of train, which is read first'
    assert (own / 'mine' / 't.tsv').read_bytes() == BODY


def test_an_error_about_raw_files_says_where_to_put_them(tmp_path, monkeypatch):
    """Whoever has no network can copy the file."""
    monkeypatch.setattr(datasets, 'DATA_DIR', str(tmp_path))
    unreachable = DATASETS['sst2'] | {'url': 'http://127.0.0.1:9/{}'}
    monkeypatch.setitem(DATASETS, 'sst2', unreachable)
    with pytest.raises((Unreachable, ValueError)) as error:
        find_raw('sst2', '')
    expected_path = str(tmp_path / 'sst2' / 'train.tsv')
    for part in (expected_path, 'NANOSENTIMENT_RAW', 'sst2/train.tsv'):
        assert part in str(error.value)


# -----------------------------------------------------------------------------
# secrets and strangers


def test_a_password_in_an_address_is_sent_and_not_shown():
    shown, header = split_password('https://me:s%40cret@host:8080/x?y#z')
    assert shown == 'https://host:8080/x?y#z'
    assert base64.b64decode(header.removeprefix('Basic ')) == b'me:s@cret'
    assert split_password('https://host/x') == ('https://host/x', '')


def test_a_password_is_in_no_message(tmp_path, capsys):
    with pytest.raises(Unreachable) as error:
        fetch('http://me:geheim@127.0.0.1:9/x', str(tmp_path / 'x'))
    assert 'http://127.0.0.1:9/x' in str(error.value)
    assert 'geheim' not in str(error.value) + capsys.readouterr().err


@pytest.mark.parametrize(
    'source, target', [('http://host/', 'ftp://other/'), ('https://host/', 'http://host/')]
)
def test_a_redirect_to_something_less_safe_is_not_followed(source, target):
    request = urllib.request.Request(source)
    with pytest.raises(OSError, match='it redirects from'):
        SameHostRedirect().redirect_request(request, None, 302, 'Found', {}, target)


class DrippingResponse:
    """A byte each 10 seconds of a clock that does not really run."""

    headers = {}
    length = None

    def __init__(self, clock):
        self.clock = clock

    def read1(self, size):
        self.clock[0] += 10
        assert self.clock[0] < 10_000, 'it is not given up'
        return b'x'


def test_a_dripping_server_is_given_up(tmp_path, monkeypatch):
    """Each byte came in time, so that no time limit of the connection was reached."""
    clock = [0.0]
    monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
    with pytest.raises(OSError, match='less than 1,000 bytes a second'):
        save_response(DrippingResponse(clock), str(tmp_path / 'x.part'), 0)
    with pytest.raises(TimeoutError, match='no whole answer in 60 s'):
        read_response(DrippingResponse(clock), 60)


def test_an_endless_answer_is_given_up():
    response = DrippingResponse([0.0])
    response.read1 = lambda size: bytes(size)
    with pytest.raises(OSError, match='more than 1,000,000 bytes'):
        read_response(response, 60, max_bytes=1_000_000)
