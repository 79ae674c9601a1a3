# python -m pytest tests/test_fetch.py
"""Files from elsewhere: whole and checked, or not at all, and soon; against a server on this machine, no network."""

import hashlib
import http.server
import io
import os
import socket
import threading
import time
import zipfile
from contextlib import contextmanager

import pytest
from conftest import SLOW

import prepare
import pretrained
from prepare import DATASETS, find_raw
from pretrained import Unreachable, fetch

BODY = b'sentence\tlabel\ngood\t1\n' * 1000
MD5, SHA256 = hashlib.md5(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()
released = threading.Event()


def archive():
    with io.BytesIO() as f:
        with zipfile.ZipFile(f, 'w') as z:
            z.writestr('SST-2/train.tsv', BODY)
            z.writestr('../evil.tsv', b'out of here')
        return f.getvalue()


ZIP = archive()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        kind = self.path.strip('/').split('/')[0]
        if kind == 'moved':
            self.send_response(302)
            self.send_header('Location', '/good')
            self.send_header('Content-Length', '0')
            self.end_headers()
        elif kind.isdigit():
            self.send_error(int(kind))
        elif kind == 'silent':
            released.wait(20 * SLOW)
            self.close_connection = True
        elif kind == 'garbage':
            self.wfile.write(b'this is not http\r\n\r\n')
            self.close_connection = True
        elif kind == 'chunks':  # that break off
            self.send_response(200)
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            self.wfile.write(b'%x\r\n' % len(BODY) + BODY[:100])
            self.close_connection = True
        else:
            body = ZIP if kind == 'zip' else BODY
            self.send_response(200)
            self.send_header('Content-Length', str(len(body) + (1000 if kind in ('short', 'stalled') else 0)))
            self.end_headers()
            self.wfile.write(body[:-100] if kind == 'short' else body)
            if kind == 'stalled':
                self.wfile.flush()
                released.wait(20 * SLOW)
            self.close_connection = True


@pytest.fixture(scope='module')
def server():
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_port}'
        released.set()
        httpd.shutdown()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pretrained, 'ANSWER_S', 0.5 * SLOW)
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.delenv('NANOSENTIMENT_RAW', raising=False)


@contextmanager
def fails(folder, patience=6):
    """The error names a way out, comes soon, and leaves no file behind."""
    started = time.perf_counter()
    with pytest.raises(Unreachable) as e:
        yield e
    assert time.perf_counter() - started < patience * pretrained.ANSWER_S
    assert 'cannot download http' in str(e.value) and str(e.value).endswith('; buy it') and '\n' not in str(e.value)
    assert not [f for f in folder.rglob('*') if f.is_file()]


@pytest.mark.parametrize('digest', [MD5, SHA256])
@pytest.mark.parametrize('kind', ['good', 'moved'])
def test_a_good_file_arrives(tmp_path, server, kind, digest):
    """By md5, which GLUE gives, or by sha256; into a folder that may not be there yet."""
    path = tmp_path / 'new' / 'train.tsv'
    assert fetch(f'{server}/{kind}', str(path), digest) == str(path)
    assert path.read_bytes() == BODY and os.listdir(path.parent) == ['train.tsv']


def test_a_bare_file_name_will_do(tmp_path, server, monkeypatch):
    """os.path.dirname('train.tsv') is '', which is no folder to make."""
    monkeypatch.chdir(tmp_path)
    fetch(f'{server}/good', 'train.tsv', MD5)
    assert (tmp_path / 'train.tsv').read_bytes() == BODY


@pytest.mark.parametrize('kind', ['404', '500', 'short', 'chunks', 'garbage'])
def test_what_does_not_arrive_whole_is_not_kept(tmp_path, server, kind):
    """Half a training file is a smaller training file: it trains, and nobody notices."""
    with fails(tmp_path):
        fetch(f'{server}/{kind}', str(tmp_path / 'train.tsv'), MD5, 'buy it')


def test_a_wrong_checksum_is_not_kept(tmp_path, server):
    """A captive portal answers everything with its login page; the file that was there before stays."""
    with fails(tmp_path) as e:
        fetch(f'{server}/good', str(tmp_path / 'train.tsv'), '0' * 64, 'buy it')
    assert SHA256 in str(e.value) and '0' * 64 in str(e.value)
    (tmp_path / 'old.tsv').write_text('old')
    with pytest.raises(Unreachable):
        fetch(f'{server}/good', str(tmp_path / 'old.tsv'), '0' * 32, 'buy it')
    assert (tmp_path / 'old.tsv').read_text() == 'old' and os.listdir(tmp_path) == ['old.tsv']


@pytest.mark.parametrize('kind', ['silent', 'stalled'])
def test_a_server_that_never_answers_is_given_up(tmp_path, server, kind):
    """Behind many firewalls a connection is accepted and then nothing comes: the first command must not hang."""
    with fails(tmp_path):
        fetch(f'{server}/{kind}', str(tmp_path / 'train.tsv'), MD5, 'buy it')


def test_a_name_that_is_looked_up_for_ever_is_given_up(tmp_path, monkeypatch):
    """Looking up a host knows no timeout of its own."""
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: released.wait(20 * SLOW))
    with fails(tmp_path) as e:
        fetch('http://nowhere.example/x', str(tmp_path / 'x'), MD5, 'buy it')
    assert 'no answer in' in str(e.value)


def test_nobody_listens(tmp_path):
    """The ordinary case without a network."""
    for url in ('http://127.0.0.1:9/x', 'http://', 'http:///x'):
        with fails(tmp_path):
            fetch(url, str(tmp_path / 'x'), MD5, 'buy it')


def test_a_member_of_a_zip(tmp_path, server):
    """GLUE comes as an archive; the checksum is the archive's."""
    digest = hashlib.sha256(ZIP).hexdigest()
    path = tmp_path / 'sst2' / 'train.tsv'
    fetch(f'{server}/zip#SST-2/train.tsv', str(path), digest)
    assert path.read_bytes() == BODY and os.listdir(path.parent) == ['train.tsv']
    path.unlink()
    with fails(tmp_path):
        fetch(f'{server}/zip#SST-2/dev.tsv', str(path), digest, 'buy it')
    with fails(tmp_path):  # right checksum, no archive
        fetch(f'{server}/good#SST-2/dev.tsv', str(path), MD5, 'buy it')


def test_raw_files_are_looked_for_in_order(tmp_path, server, monkeypatch):
    """One's own folder wins over the project's, that over the shared one, and only then the network is asked."""
    row = dict(columns=('a', 'b'), train=('t.tsv', MD5), test=('d.tsv', MD5), url=server + '/good/{}')
    monkeypatch.setitem(DATASETS, 'mine', row)
    monkeypatch.setattr(prepare, 'HERE', str(tmp_path / 'code'))
    monkeypatch.setenv('NANOSENTIMENT_RAW', str(tmp_path / 'raw'))
    places = [tmp_path / 'own' / 'mine', tmp_path / 'code' / 'data' / 'mine', tmp_path / 'raw' / 'mine']
    for place in places:
        place.mkdir(parents=True)
        for name in ('t.tsv', 'd.tsv'):
            (place / name).write_text('x')
    for i, place in enumerate(places):
        assert find_raw('mine', str(tmp_path / 'own'))['train'] == str(place / 't.tsv')
        assert find_raw('mine', '')['train'] == str(places[max(i, 1)] / 't.tsv')
        assert list(find_raw('mine', '')) == ['train', 'test'], 'what labels there are is up to train, which is read first'
        (place / 't.tsv').unlink()
    paths = find_raw('mine', str(tmp_path / 'own'))
    assert paths == {'train': str(places[0] / 't.tsv'), 'test': str(places[0] / 'd.tsv')}
    assert (places[0] / 't.tsv').read_bytes() == BODY


def test_the_error_names_the_ways_out(tmp_path, monkeypatch):
    """Whoever has no network needs to know where to put the file."""
    monkeypatch.setattr(prepare, 'HERE', str(tmp_path))
    monkeypatch.setitem(DATASETS, 'sst2', DATASETS['sst2'] | {'url': 'http://127.0.0.1:9/{}'})
    for name, file in (('sst2', 'train.tsv'), ('demo', 'train.csv')):
        with pytest.raises(Unreachable) as e:
            find_raw(name, '')
        for part in (file, str(tmp_path / 'data' / name), 'NANOSENTIMENT_RAW', f'{name}/{file}'):
            assert part in str(e.value)
