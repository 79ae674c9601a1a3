"""
A checkpoint in Hugging Face's format, translated into our names. hub.py finds its folder.

    settings = model_settings(folder, {'dropout': 0.1})  # fields of model.Config
    state, loaded = load_weights(folder, shapes)         # tensors under our names; a report

GPT-2, BERT and its relatives are entries of FAMILIES; another family is one more entry.
A checkpoint with a tensor too many or too few is refused: a ValueError of one line names it.
Heads and buffers are exempt: unused ones are left out, and a missing head starts fresh, to be
trained. classifier_labels is for a model that is used as it is.
"""

import json
import math
import mmap
import os
import pickle
import re
import sys
import zipfile
from dataclasses import dataclass

import torch

from nanosentiment.cleaning import STEP_TYPES
from nanosentiment.files import (
    check_fields,
    check_texts,
    check_zip,
    checksum,
    read_json,
    seal,
)

# -----------------------------------------------------------------------------
# the files of a folder

DAMAGED_FILE_REMEDY = 'if it was downloaded, delete it and fetch it again'
# the files that may hold the weights; the first that is there counts
WEIGHT_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
# what else may lie in a folder, by the end of its name, and what to do then
SAVE_AGAIN = 'load it with transformers and write it with model.save_pretrained(folder)'
OTHER_FILES = {
    'adapter_model.safetensors': (
        'a LoRA adapter without its model',
        'merge the two with the package peft: '
        'model.merge_and_unload().save_pretrained(folder), and name that folder',
    ),
    'adapter_model.bin': (
        'a LoRA adapter without its model',
        'merge the two with the package peft: '
        'model.merge_and_unload().save_pretrained(folder), and name that folder',
    ),
    '.h5': ('weights of TensorFlow', f'{SAVE_AGAIN} (version 4 of transformers, from_tf=True)'),
    '.msgpack': ('weights of Flax', f'{SAVE_AGAIN} (version 4 of transformers, from_flax=True)'),
    '.gguf': ('weights of llama.cpp', SAVE_AGAIN),
    '.onnx': ('a graph for prediction', 'fetch model.safetensors, too'),
    'best.pt': ('a run of this project', 'train on from it with train.py --init_from'),
}
CHECKPOINT = re.compile(r'checkpoint-(\d+)')  # the folders that the Trainer of transformers writes
# what DataParallel and torch.compile put in front of the names of weights
WRAPPERS = ('module.', '_orig_mod.')
# the types of numbers as .safetensors files name them
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


class UnsupportedNumbers(ValueError):
    """A tensor's numbers are of a type that is not in DTYPES. The file itself may be fine."""


def read_object(path):
    """A JSON file that holds an object -> dict."""
    content = read_json(path, DAMAGED_FILE_REMEDY)
    if not isinstance(content, dict):
        raise ValueError(f'{path} is not a JSON object; {DAMAGED_FILE_REMEDY}')
    return content


def weight_files(folder):
    """The names of the files that hold the weights, one or several; [] if some are missing."""
    for file in WEIGHT_FILES:
        # caches consist of links, which may lead nowhere: os.path.exists says no to those
        if not os.path.exists(os.path.join(folder, file)):
            continue
        shards = shard_files(folder, file)
        if all(os.path.exists(os.path.join(folder, shard)) for shard in shards):
            return shards
    return []


def shard_files(folder, file):
    """One of WEIGHT_FILES -> the files it stands for: itself, or those that an index lists."""
    if not file.endswith('.index.json'):
        return [file]
    path = os.path.join(folder, file)
    weight_map = read_object(path).get('weight_map')  # {name of a tensor: file}
    if not weight_map or not isinstance(weight_map, dict):
        raise ValueError(f'{path} lists no files; {DAMAGED_FILE_REMEDY}')
    # only the base name, so that an index cannot name a file outside the folder
    return sorted({os.path.basename(shard) for shard in weight_map.values()})


def read_safetensors(path):
    """
    A .safetensors file -> {name: tensor}, mapped into memory rather than read.

    The format is 8 bytes with the length of the header, the header in JSON, and raw numbers:
    https://huggingface.co/docs/safetensors
    """
    # read here, because the package safetensors is not among the few that the project requires
    with open(path, 'rb') as f:
        # torch wants a buffer that it could write to; with ACCESS_COPY nothing reaches the file
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    header_end = 8 + int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:header_end])
    header.pop('__metadata__', None)
    tensors = {}
    for name, info in header.items():
        begin, end = info['data_offsets']
        if info['dtype'] not in DTYPES:
            raise UnsupportedNumbers(
                f'{path}: the numbers of {name} are of type {info["dtype"]}, which is none of '
                f'{", ".join(DTYPES)}; choose another checkpoint'
            )
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
    check_zip(path)  # torch.load does not look at its checksums
    tensors = torch.load(path, map_location='cpu', weights_only=True, mmap=is_mappable)
    if not isinstance(tensors, dict):
        raise ValueError('it does not hold names and tensors')
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f'{name} is not a tensor')
    return tensors


def read_weights(folder, prefix):
    """
    All tensors of a folder, {name without the prefix: tensor}, and a note if their names had a
    wrapper's word in front, else ''.
    """
    tensors = {}
    wrapper = ''
    for file in weight_files(folder):
        path = os.path.join(folder, file)
        read = read_safetensors if file.endswith('.safetensors') else read_torch
        try:
            for full_name, tensor in read(path).items():
                bare_name = without_wrapper(full_name)
                wrapper = wrapper or full_name.removesuffix(bare_name)
                name = plain_name(bare_name, prefix)
                if name in tensors:
                    raise ValueError(f'{name} is there twice')
                tensors[name] = tensor
        except UnsupportedNumbers:
            raise  # fetching the file again would not help
        # cut short, a page of HTML, a pickle that runs code: many types of exceptions
        except Exception as error:
            reason = describe_error(error)
            raise ValueError(f'{path} cannot be read ({reason}); {DAMAGED_FILE_REMEDY}') from None
    if not tensors:
        raise ValueError(describe_missing_weights(folder))
    note = f'{wrapper} is left out of the names of the weights' if wrapper else ''
    return tensors, note


def describe_error(error):
    """
    What went wrong when a file was opened, in a few words. torch's own advice, to open a file that
    may run code, is not passed on.
    """
    if isinstance(error, pickle.UnpicklingError):
        return 'it holds other things than tensors and plain values, or is damaged'
    message = ' '.join(str(error).split())[:200]
    if isinstance(error, ValueError) and message:
        return message
    return f'{type(error).__name__}: {message}'


def describe_missing_weights(folder):
    """One line on a folder without weights that can be read: what lies in it, and what to do."""
    found = describe_other_files(folder)
    if found:
        return found
    return f'{folder} lacks model.safetensors or pytorch_model.bin, or a part of it; fetch it again'


def describe_other_files(folder):
    """One line if something else lies in a folder that can be made usable, and how; or ''."""
    files = sorted(os.listdir(folder))
    for ending, (what, remedy) in OTHER_FILES.items():
        found = [file for file in files if file.endswith(ending)]
        if found:
            return f'{folder} holds only {found[0]}, {what}; {remedy}'
    steps = [int(file.removeprefix('checkpoint-')) for file in files if CHECKPOINT.fullmatch(file)]
    if steps:
        newest = os.path.join(folder, f'checkpoint-{max(steps)}')
        return f'{folder} has its weights in folders below it; name one of them, such as {newest}'
    return ''


def without_wrapper(name):
    """'module._orig_mod.bert.pooler.weight' -> 'bert.pooler.weight'"""
    while name.startswith(WRAPPERS):
        name = name.partition('.')[2]
    return name


def plain_name(name, prefix):
    """The name of a tensor without the prefix; old files say gamma and beta for weight and bias."""
    name = re.sub(r'\.gamma\Z', '.weight', name)
    name = re.sub(r'\.beta\Z', '.bias', name)
    return name.removeprefix(prefix)


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
GPT2_TRANSPOSED = frozenset(
    {'h.{}.attn.c_attn', 'h.{}.attn.c_proj', 'h.{}.mlp.c_fc', 'h.{}.mlp.c_proj'}
)
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
ELECTRA_WEIGHTS = ROBERTA_WEIGHTS | {'embed_proj': 'embeddings_project'}
MPNET_WEIGHTS = ROBERTA_WEIGHTS | {
    'rel_bias': 'encoder.relative_attention_bias',
    'h.{}.attn.c_attn': (
        'encoder.layer.{}.attention.attn.q',
        'encoder.layer.{}.attention.attn.k',
        'encoder.layer.{}.attention.attn.v',
    ),
    'h.{}.attn.c_proj': 'encoder.layer.{}.attention.attn.o',
    'h.{}.ln_1': 'encoder.layer.{}.attention.LayerNorm',
}
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
ELECTRA_FIELDS = BERT_FIELDS | {'embedding_size': 'embedding_size'}
# MPNet's head has the dropout of its layers
MPNET_FIELDS = BERT_FIELDS | {'head_dropout': 'hidden_dropout_prob'}
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

# Fields of our Config where config.json says nothing. The head reads the text's 'last' real token,
# the 'first', or the 'mean' of all (pool). It is one 'linear' layer, or has a hidden layer with
# 'tanh', 'relu' or 'gelu' below that (head). GELU is computed by its definition, 'exact', or by
# GPT-2's approximation, 'tanh' (gelu).
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
# 0.2 is transformers' default of seq_classif_dropout
DISTILBERT_DEFAULTS = BERT_DEFAULTS | {'n_type': 0, 'head': 'relu', 'head_dropout': 0.2}
ELECTRA_DEFAULTS = BERT_DEFAULTS | {'head': 'gelu'}
# transformers computes 32 buckets of distance whatever config.json says
MPNET_DEFAULTS = BERT_DEFAULTS | {'n_type': 0, 'n_bucket': 32}


@dataclass
class Family:
    prefix: str  # what stands before the names of the weights in most files
    weights: dict  # our module -> their module, or three that are stacked
    fields: dict  # field of our Config -> its name in config.json
    defaults: dict  # fields of our Config where config.json says nothing
    transposed: frozenset = frozenset()  # our modules whose weights are stored as (in, out)
    counts_from_pad: bool = False  # the first position of a text is pad_token_id + 1
    head_has_bias: bool = True


ROBERTA = Family('roberta.', ROBERTA_WEIGHTS, BERT_FIELDS, BERT_DEFAULTS, counts_from_pad=True)

# the key is config.json's model_type
FAMILIES = {
    'gpt2': Family(
        'transformer.',
        GPT2_WEIGHTS,
        GPT2_FIELDS,
        GPT2_DEFAULTS,
        transposed=GPT2_TRANSPOSED,
        head_has_bias=False,
    ),
    'bert': Family('bert.', BERT_WEIGHTS, BERT_FIELDS, BERT_DEFAULTS),
    'distilbert': Family('distilbert.', DISTILBERT_WEIGHTS, DISTILBERT_FIELDS, DISTILBERT_DEFAULTS),
    'roberta': ROBERTA,
    'xlm-roberta': ROBERTA,  # they differ in what they were trained on, and in their tokens
    'camembert': ROBERTA,
    'electra': Family('electra.', ELECTRA_WEIGHTS, ELECTRA_FIELDS, ELECTRA_DEFAULTS),
    'mpnet': Family('mpnet.', MPNET_WEIGHTS, MPNET_FIELDS, MPNET_DEFAULTS, counts_from_pad=True),
}

# -----------------------------------------------------------------------------
# settings

REQUIRED_SIZES = ('vocab_size', 'block_size', 'n_layer', 'n_head', 'n_embd')
# config.json's names of the activation -> ours
GELU_OF_ACTIVATION = {'gelu': 'exact', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh'}
CLASSIFIER = 'ForSequenceClassification'  # how the names of transformers' classes end
# sentence-transformers' names of pooling -> ours
POOL_OF_MODE = {
    'pooling_mode_mean_tokens': 'mean',
    'pooling_mode_cls_token': 'first',
    'pooling_mode_lasttoken': 'last',
}
# settings of config.json that change the arithmetic, and the only value of each that we compute
SUPPORTED_VALUES = {
    'position_embedding_type': 'absolute',
    'is_decoder': False,
    'add_cross_attention': False,
    'scale_attn_weights': True,
    'scale_attn_by_inverse_layer_idx': False,
    'pruned_heads': {},
    'quantization_config': None,
}
# what a user may set against config.json
USER_SETTINGS = (
    'block_size', 'causal', 'dropout', 'head', 'head_dropout', 'pair_sep', 'pool', 'token_dropout',
)  # fmt: skip


# what config.json may hold besides the sizes, as far as it is read here; null stands for nothing
CONFIG_TEXTS = ('model_type', 'problem_type', 'activation', 'activation_function', 'hidden_act')
CONFIG_NUMBERS = (
    'layer_norm_eps', 'layer_norm_epsilon', 'dropout', 'resid_pdrop', 'hidden_dropout_prob',
    'classifier_dropout', 'seq_classif_dropout',
)  # fmt: skip
CONFIG_SIZES = (
    'n_inner', 'intermediate_size', 'hidden_dim', 'type_vocab_size', 'embedding_size',
    'pad_token_id',
)  # fmt: skip
CONFIG_TYPES = {
    'architectures': list,
    'id2label': dict,
    'nanosentiment': dict,
    **dict.fromkeys(CONFIG_TEXTS, str),
    **dict.fromkeys(CONFIG_NUMBERS, (float, int)),
    **dict.fromkeys(CONFIG_SIZES, int),
}


def read_config(folder):
    """
    A folder's config.json -> its content, the name of its family.

    Raises ValueError for a model that we cannot compute.
    """
    path = os.path.join(folder, 'config.json')
    hf_config = read_object(path)
    present = {name: value for name, value in hf_config.items() if value is not None}
    try:
        check_fields(present, {}, CONFIG_TYPES, 'it')
        check_texts(present.get('architectures', []), 'its architectures')
    except ValueError as error:
        raise ValueError(f'{path} cannot be used: {error}; fetch it again') from None
    family_name = hf_config.get('model_type')
    if family_name not in FAMILIES:
        raise ValueError(
            f'{path}: model_type={family_name} is none of {", ".join(FAMILIES)}; '
            'choose another checkpoint'
        )
    check_config(path, hf_config, FAMILIES[family_name])
    return hf_config, family_name


def check_config(path, hf_config, family):
    """Raises ValueError if a config.json lacks a size or asks for arithmetic that we lack."""
    missing = []
    for name in REQUIRED_SIZES:
        hf_name = family.fields[name]
        size = hf_config.get(hf_name)
        # not isinstance: bool is an int, and True is no size
        if type(size) is not int or size < 1:
            missing.append(hf_name)
    if missing:
        names = ', '.join(missing)
        raise ValueError(f'{path} does not give {names} as positive whole numbers; fetch it again')

    unsupported = []
    for hf_name, value in SUPPORTED_VALUES.items():
        if hf_config.get(hf_name) not in (None, value):
            unsupported.append(hf_name)
    gelu_name = family.fields['gelu']
    if hf_config.get(gelu_name) is not None and hf_config[gelu_name] not in GELU_OF_ACTIVATION:
        unsupported.append(gelu_name)
    # transformers ignores is_causal=False for BERT, but not for GPT-2
    if family.defaults['causal'] and hf_config.get('is_causal') is False:
        unsupported.append('is_causal')
    if unsupported:
        values = ', '.join(f'{hf_name}={hf_config[hf_name]}' for hf_name in unsupported)
        raise ValueError(f'{path}: {values} is not supported; choose another checkpoint')


def config_fields(hf_config, family):
    """The fields of our Config that follow from a config.json that has passed check_config."""
    fields = dict(family.defaults)
    for name, hf_name in family.fields.items():
        value = hf_config.get(hf_name)
        if value is None:
            continue
        if name == 'gelu':
            value = GELU_OF_ACTIVATION[value]
        fields[name] = value
    if family.counts_from_pad:
        # the table of positions begins with rows that no text reaches
        pad_token_id = hf_config.get('pad_token_id')
        fields['pos_offset'] = 2 if pad_token_id is None else pad_token_id + 1
        fields['block_size'] -= fields['pos_offset']
    # BERT and RoBERTa: a classifier_dropout of null stands for hidden_dropout_prob
    if 'head_dropout' in family.fields and 'head_dropout' not in fields:
        fields['head_dropout'] = fields.get('dropout', 0.1)
    return fields


def model_settings(folder, settings):
    """
    The fields of our Config for a checkpoint, except n_class.

    settings: what the user wants otherwise, {one of USER_SETTINGS: value}; a value of None leaves
    the setting to the checkpoint.
    """
    hf_config, family_name = read_config(folder)
    fields = config_fields(hf_config, FAMILIES[family_name])
    chosen = {name: value for name, value in settings.items() if value is not None}
    if 'pool' not in chosen and not has_classifier(hf_config):
        fields['pool'] = read_pooling(folder) or fields['pool']
    refused = sorted(chosen.keys() - set(USER_SETTINGS))
    if refused:
        raise ValueError(
            f'{", ".join(refused)} cannot be set, because the checkpoint decides it; '
            f'what can be set is {", ".join(USER_SETTINGS)}'
        )
    check_size(folder, fields)
    limit = fields['block_size']
    if chosen.get('block_size', 0) > limit:
        raise ValueError(
            f'block_size {chosen["block_size"]} is more than the {limit} positions of {folder}; '
            f'set it to {limit} or less'
        )
    return fields | chosen


def check_size(folder, fields):
    """
    ValueError if a model of these sizes has far more weights than the folder's files. A layer too
    many in a damaged config.json is found later, but 10**9 of them would fill the memory first.
    """
    n_embd = fields['n_embd']
    n_inner = fields.get('n_inner') or 4 * n_embd
    n_weights = fields['n_layer'] * (4 * n_embd**2 + 2 * n_embd * n_inner)
    width = fields.get('embedding_size') or n_embd
    n_weights += width * (fields['vocab_size'] + fields['block_size'])
    paths = [os.path.join(folder, file) for file in weight_files(folder)]
    n_bytes = sum(os.path.getsize(path) for path in paths)
    if paths and n_weights > max(n_bytes, 5 * 10**8):
        raise ValueError(
            f'{folder}/config.json describes {n_weights:,} weights, and its files have {n_bytes:,} '
            'bytes; fetch both again'
        )


def has_classifier(hf_config):
    """Does config.json say that the checkpoint is a classifier of texts? A silent one may be."""
    architectures = hf_config.get('architectures') or ['']
    return architectures[0].endswith(CLASSIFIER)


def read_pooling(folder):
    """
    What sentence-transformers makes the vector of a text of: 'mean', 'first' or 'last'; '' if the
    folder is not of sentence-transformers. ValueError for what we cannot compute.
    """
    path = os.path.join(folder, '1_Pooling', 'config.json')
    if not os.path.exists(path):
        return ''
    modes = [name for name, value in read_object(path).items() if value is True]
    modes = [name for name in modes if name.startswith('pooling_mode_')]
    if len(modes) != 1 or modes[0] not in POOL_OF_MODE:
        raise ValueError(
            f'{path}: {" and ".join(modes) or "no pooling_mode"} is not supported; '
            'set --pool to mean, first or last'
        )
    return POOL_OF_MODE[modes[0]]


# -----------------------------------------------------------------------------
# weights

MAX_NAMES = 8  # of tensors that an error names
# tensors that a checkpoint may have and we may leave out: buffers silently, heads with a note
BUFFERS = r'h\.\d+\.attn\.(masked_)?bias|embeddings\.(position|token_type)_ids'
HEADS = (
    r'(lm_head|cls|vocab_\w+|pooler|classifier|pre_classifier|score|qa_outputs'
    r'|multiple_choice_head|sequence_summary|(discriminator|generator)_\w+)\..*'
)


def load_weights(folder, shapes, labels=None, settings=None):
    """
    The tensors of a checkpoint under the names of our parameters.

    shapes: {name of our parameter: shape}, of a model made of `model_settings`.
    labels: the user's labels. A head for the same labels in another order is put in theirs. A head
    for as many other labels is kept, with a note unless its labels have no names but LABEL_0 and
    so on: its rows then stand for the user's labels in their order.
    settings: those that `model_settings` was given, for a note on what the head now reads.

    Returns state, {our name: tensor} without what starts fresh, and a dict that tells what was
    taken: source (the folder), labels (of the head if it came along, else None), fresh (our modules
    that start fresh), dropped (modules of the checkpoint that have no use here) and notes
    (sentences to print).
    Raises ValueError unless each parameter and each tensor is accounted for.
    """
    hf_config, family_name = read_config(folder)
    family = FAMILIES[family_name]
    fields = config_fields(hf_config, family)
    tensors, note = read_weights(folder, family.prefix)
    notes = [note] if note else []

    # the first positions are kept if fewer are wanted than the checkpoint has
    offset = fields.get('pos_offset', 0)
    n_rows = fields['block_size'] + offset
    n_wanted = shapes['wpe.weight'][0]
    if n_wanted < n_rows:
        notes.append(f'positions cropped from {n_rows - offset} to {n_wanted - offset}')
        crop_positions(tensors, f'{family.weights["wpe"]}.weight', n_rows, n_wanted)

    # the head and its hidden layer may start fresh
    fresh, note = fresh_modules(hf_config, family, tensors, shapes)
    if note:
        notes.append(note)
    head_bias_name = f'{family.weights["head"]}.bias'
    has_head = 'head.weight' in shapes and 'head' not in fresh
    if has_head and not family.head_has_bias and head_bias_name not in tensors:
        # no bias is the same as a bias of 0
        tensors[head_bias_name] = torch.zeros(shapes['head.bias'])
        notes.append('the head of the checkpoint has no bias, ours starts at 0')

    # every other parameter is made of tensors of the checkpoint
    sources = {}
    for name in shapes:
        if module_of(name) not in fresh:
            sources[name] = hf_names(name, family.weights)
    state, misshapen = build_state(sources, tensors, shapes, family.transposed)
    complaint = f'{folder} does not fit {family_name}'
    dropped = account_for_tensors(complaint, sources, tensors, misshapen)

    # the labels of the head, in the user's order if they are the same labels
    head_labels = None
    if has_head:
        head_labels = read_labels(hf_config, shapes['head.weight'][0])
        order = label_order(head_labels, labels or [])
        if order is None:
            notes += label_notes(head_labels, labels)
        else:
            head_labels = list(labels)
            state['head.weight'] = state['head.weight'][order]
            state['head.bias'] = state['head.bias'][order]
        notes += pooling_notes(fields, settings or {})

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


def crop_positions(tensors, name, n_rows, n_wanted):
    """
    Keeps the first `n_wanted` rows of the table of positions.

    A table that does not have `n_rows` rows, as it should, is left as it is.
    """
    table = tensors.get(name)
    # a table that is missing or of another size is refused by account_for_tensors
    if table is not None and table.dim() == 2 and len(table) == n_rows:
        tensors[name] = table[:n_wanted]


def fresh_modules(hf_config, family, tensors, shapes):
    """
    Which of our hidden layer of the head, 'pooler', and 'head' start fresh.

    Returns their names, and a note if the checkpoint has a head that cannot become ours, else ''.
    """
    fresh = missing_modules(tensors, family.weights, shapes)
    is_lm = 'head.weight' not in shapes
    if is_lm or 'head' in fresh:
        return fresh, ''
    head_weight = tensors.get(f'{family.weights["head"]}.weight')
    note = head_note(hf_config, head_weight, shapes['head.weight'][0])
    # What a trained head reads is the output of the hidden layer that it was trained with. In a
    # family without such a layer it is there only because the user wants it, which pooling_notes
    # mentions.
    if not note and 'pooler' in fresh and 'pooler' in family.weights:
        hidden_layer = family.weights['pooler']
        note = f'the head cannot be used without its hidden layer, {hidden_layer}, which is missing'
    if note:
        fresh.append('head')
    return fresh, note


def missing_modules(tensors, weights, shapes):
    """
    Our modules 'pooler' and 'head' as far as the checkpoint has no tensor of them.

    A module that our model does not have either is not missing.
    """
    missing = []
    for module in ('pooler', 'head'):
        is_needed = f'{module}.weight' in shapes
        if is_needed and not has_module(tensors, weights.get(module)):
            missing.append(module)
    return missing


def has_module(tensors, module):
    """
    Is there a tensor of this module?

    module: its name in the checkpoint, or None if the family has no such module.
    """
    return module is not None and any(name.startswith(f'{module}.') for name in tensors)


def head_note(hf_config, weight, n_class):
    """
    Why the head of a checkpoint cannot become ours, as a note; '' if it can.

    weight: (labels of the checkpoint, C), or None if it is missing.
    """
    # the head of a token classifier has the same name and size, but never saw a text's vector
    architectures = hf_config.get('architectures') or [CLASSIFIER]
    architecture = architectures[0]
    if not architecture.endswith(CLASSIFIER):
        return f'the head of this {architecture} was not trained to classify texts'
    # a tensor that is missing or no matrix is refused by account_for_tensors
    if weight is None or weight.dim() != 2:
        return ''
    if len(weight) != n_class:
        return f'the head of this {architecture} is for {len(weight)} labels, ours for {n_class}'
    return ''


def pooling_notes(fields, settings):
    """
    A note for each setting that makes the trained head read another vector than it was trained on.

    fields: the checkpoint's; settings: the user's. The head is kept even so, because it is
    trained further.
    """
    notes = []
    for name in ('pool', 'head'):
        chosen = settings.get(name)
        if chosen is not None and chosen != fields[name]:
            notes.append(f'{name}={chosen}, but the head was trained with {name}={fields[name]}')
    return notes


def module_of(name):
    """'h.3.mlp.c_fc.weight' -> 'h.3.mlp.c_fc'"""
    return name.rpartition('.')[0]


def without_layer(module):
    """'h.3.mlp.c_fc' -> 'h.{}.mlp.c_fc', as the tables of weights write it."""
    return re.sub(r'\.\d+\.', '.{}.', module)


def hf_names(name, weights):
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


def build_state(sources, tensors, shapes, transposed):
    """
    Makes our parameters of the tensors of a checkpoint.

    sources: {our name: the names of its tensors}
    Returns {our name: tensor}, and a description of each tensor whose shape or type does not fit.
    """
    state = {}
    misshapen = []
    for name, names in sources.items():
        is_transposed = without_layer(module_of(name)) in transposed
        # three tensors of shape (C, C) become one of (3C, C)
        rows, *columns = shapes[name]
        part_shape = (rows // len(names), *columns)
        parts = []
        for hf_name in names:
            # a parameter that stays incomplete is reported by account_for_tensors
            if hf_name not in tensors:
                continue
            tensor = tensors[hf_name]
            if is_transposed and tensor.dim() == 2:
                tensor = tensor.T
            if tensor.shape == part_shape and tensor.is_floating_point():
                parts.append(tensor)
            else:
                misshapen.append(
                    f'{hf_name} {list(tensor.shape)} {tensor.dtype} for {name} {list(part_shape)}'
                )
        if len(parts) == 1:
            state[name] = parts[0]  # not copied: it stays mapped
        elif parts:
            state[name] = torch.cat(parts)
    return state, misshapen


def account_for_tensors(complaint, sources, tensors, misshapen):
    """
    Checks that the checkpoint has every tensor that we need, and that we know every tensor it has.

    Returns the modules of the checkpoint that have no use here. Raises ValueError, `complaint` and
    the lists of names, if a tensor is missing, unknown or does not fit.
    """
    needed = set()
    for names in sources.values():
        needed.update(names)
    heads = set()
    unknown = set()
    for hf_name in tensors.keys() - needed:
        if re.fullmatch(HEADS, hf_name):
            heads.add(module_of(hf_name))
        elif not re.fullmatch(BUFFERS, hf_name):
            unknown.add(hf_name)

    problems = {'missing': needed - tensors.keys(), 'unknown': unknown, 'misshapen': misshapen}
    for kind, names in problems.items():
        if names:
            complaint += f'; {kind}: {list_names(names)}'
    if any(problems.values()):
        raise ValueError(complaint)
    return sorted(heads)


def classifier_labels(folder):
    """
    The labels of a classifier of texts, in the order of its logits.

    ValueError if the folder holds another kind of model: one without a trained head, or a head that
    does not give each text one label.
    """
    hf_config, family_name = read_config(folder)
    family = FAMILIES[family_name]
    tensors, _ = read_weights(folder, family.prefix)
    reason = why_no_classifier(hf_config, family, tensors)
    if reason:
        raise ValueError(
            f'{folder} does not classify texts ({reason}); train it first: '
            f'python train.py --init_from={folder} --dataset=...'
        )
    n_class = len(tensors[f'{family.weights["head"]}.weight'])
    labels = read_labels(hf_config, n_class)
    if len(set(labels)) < len(labels):
        repeated = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(
            f'{folder}/config.json calls several labels {repeated!r}; give each a name of its own'
        )
    return labels


def why_no_classifier(hf_config, family, tensors):
    """Why the labels that a checkpoint gives would mean nothing, or ''."""
    problem = hf_config.get('problem_type')
    if problem not in (None, 'single_label_classification'):
        return f'problem_type={problem}'
    weight = tensors.get(f'{family.weights["head"]}.weight')
    if weight is None:
        return 'it has no trained head'
    if len(weight) < 2:
        return 'its head gives one number, which is no label'
    hidden_layer = family.weights.get('pooler')
    if hidden_layer and not has_module(tensors, hidden_layer):
        return f'the hidden layer of its head, {hidden_layer}, is missing'
    return head_note(hf_config, weight, len(weight))


def max_positions(folder):
    """The most tokens of one text that a checkpoint can read."""
    hf_config, family_name = read_config(folder)
    return config_fields(hf_config, FAMILIES[family_name])['block_size']


def truncation_of(folder):
    """
    How transformers cuts a text: to how many tokens, None if only the positions limit it, and
    which end it keeps, 'first' or 'last'.
    """
    path = os.path.join(folder, 'tokenizer_config.json')
    tokenizer_config = read_object(path) if os.path.exists(path) else {}
    keep = 'last' if tokenizer_config.get('truncation_side') == 'left' else 'first'

    n_positions = max_positions(folder)
    limit = tokenizer_config.get('model_max_length') or n_positions
    # transformers writes 1e30 where it knows no limit
    return (int(limit) if limit < n_positions else None), keep


def other_label_names(labels):
    """
    How labels may be written in a file that is to be judged: {other name: label}.

    ['NEGATIVE', 'POSITIVE'] -> {'0': 'NEGATIVE', 'negative': 'NEGATIVE', ...}: the number of the
    logit, as transformers counts labels, and other cases. What is itself a label is not renamed.
    """
    has_numbers = any(label.isdecimal() for label in labels)  # such as the stars 1 to 5
    names = {}
    for number, label in enumerate(labels):
        other_names = [label.lower(), label.upper(), label.capitalize()]
        if not has_numbers:
            other_names.append(str(number))
        for name in other_names:
            if name not in labels:
                names.setdefault(name, label)
    return names


EXPORTED = 'exported_by_nanosentiment'  # a key of tokenizer_config.json
EXPORTED_FILES = ('model.safetensors', 'tokenizer.json', 'tokenizer_config.json')
EXPORTED_INFO = {
    'temperature': (float, int),
    'keep': str,
    'block_size': int,
    'cleaning': dict,
    'checksums': dict,
}


def folder_checksums(folder, hf_config):
    """
    {file of a folder that export.py writes: its checksum}; of config.json that of all that it holds
    but these checksums.
    """
    info = dict(hf_config.get('nanosentiment', {}))
    info.pop('checksums', None)
    checksums = {'config.json': seal(hf_config | {'nanosentiment': info})}
    for name in EXPORTED_FILES:
        path = os.path.join(folder, name)
        checksums[name] = checksum(path) if os.path.exists(path) else ''
    return checksums


def exported_info(folder):
    """
    What export.py wrote into config.json on how a run reads texts; {} of other folders.

    Other programs keep it when they train the model further. So if a file has changed since, a line
    on stderr says so, and the temperature is left out, which was fitted for other weights.
    """
    path = os.path.join(folder, 'config.json')
    hf_config = read_object(path)
    info = dict(hf_config.get('nanosentiment', {}))
    if not info:
        tokenizer_path = os.path.join(folder, 'tokenizer_config.json')
        was_exported = os.path.exists(tokenizer_path) and read_object(tokenizer_path).get(EXPORTED)
        if was_exported:
            say_changed(folder, ['config.json'], 'temperature and cleaning')
        return {}
    try:
        check_fields(info, {'cleaning': dict}, EXPORTED_INFO, 'nanosentiment')
        check_fields(info['cleaning'], STEP_TYPES, {}, 'its cleaning')
        if not 0 < info.get('temperature', 1.0) < math.inf:
            raise ValueError(f'its temperature is {info["temperature"]}')
    except ValueError as error:
        raise ValueError(f'{path} cannot be used: {error}; export it again') from None
    expected = info.get('checksums', {})
    changed = []
    for name, digest in folder_checksums(folder, hf_config).items():
        if expected.get(name, digest) != digest:
            changed.append(name)
    if changed:
        say_changed(folder, changed, 'temperature')
        info.pop('temperature', None)
    return info


def say_changed(folder, names, left_out):
    """One line on files of an export that are not as export.py has written them."""
    print(
        f'{folder}: {", ".join(names)} changed since the export, by further training or by damage; '
        f'its {left_out} is left out',
        file=sys.stderr,
    )


def list_names(names):
    """The names of tensors for an error, which would be very long with all those of a model."""
    names = sorted(names)
    n_more = len(names) - MAX_NAMES
    if n_more <= 0:
        return ', '.join(names)
    return f'{", ".join(names[:MAX_NAMES])} and {n_more} more'


def read_labels(hf_config, n_class):
    """The labels of a checkpoint's head in the order of its rows."""
    id2label = hf_config.get('id2label') or {}
    return [str(id2label.get(str(i), f'LABEL_{i}')) for i in range(n_class)]


def label_notes(head_labels, labels):
    """
    A note if the user has other labels than a trained head, in a list; [] if there is none to make.

    Checkpoints whose labels were never named say LABEL_0 and LABEL_1: they may well be the user's.
    """
    generic_labels = [f'LABEL_{i}' for i in range(len(head_labels))]
    if not labels or head_labels == generic_labels:
        return []
    return [
        f'the head was trained for the labels {", ".join(head_labels)}; '
        f'its rows now stand for {", ".join(labels)}'
    ]


def label_order(head_labels, labels):
    """
    The rows of the head in the order of `labels`, or None if those are other labels.

    ['POSITIVE', 'NEGATIVE'], ['negative', 'positive'] -> [1, 0]
    Compared exactly first, then ignoring case.
    """
    for normalize in (str, str.lower):
        row_of_label = {normalize(label): row for row, label in enumerate(head_labels)}
        wanted = [normalize(label) for label in labels]
        is_unique = len(row_of_label) == len(head_labels)
        if is_unique and row_of_label.keys() == set(wanted):
            return [row_of_label[label] for label in wanted]
    return None


# -----------------------------------------------------------------------------
# tokens

# Two tokens and their ids, as GPT-2's tokenizer.json writes them, tell it from GPT-2s of other
# languages and other texts. The first word is common, so that its id depends on the texts; the
# second is a user's name that became a token in no vocabulary but this one.
GPT2_TOKENS = {'Ġthe': 262, 'ĠSolidGoldMagikarp': 43453}


def check_tokens(folder, tokenizer_state, tokenizer_vocab_size, vocab_size):
    """
    Raises ValueError if a checkpoint does not know the tokens of a tokenizer.

    There are GPT-2s of many languages with as many tokens as GPT-2: all ids would be valid and
    mean other words. A folder without tokenizer.json is trusted.

    tokenizer_state: the tokenizer's state(); tokenizer_vocab_size: how many tokens it has;
    vocab_size: how many tokens the checkpoint's embedding has.
    """
    path = os.path.join(folder, 'tokenizer.json')
    vocab = None
    if os.path.exists(path):
        model = read_object(path).get('model')
        vocab = model.get('vocab') if isinstance(model, dict) else {}
    name = tokenizer_state['name']
    if tokenizer_state['kind'] == 'json':
        own_vocab = json.loads(tokenizer_state['text'])['model']['vocab']
        tokens_fit = vocab is None or vocab == own_vocab
    elif name == 'gpt2':
        is_gpt2 = isinstance(vocab, dict) and GPT2_TOKENS.items() <= vocab.items()
        tokens_fit = vocab is None or is_gpt2
    else:
        tokens_fit = False  # bpe<N> is learned from our own texts
    if not tokens_fit or tokenizer_vocab_size > vocab_size:
        raise ValueError(
            f'{folder} has {vocab_size:,} tokens and does not know the '
            f'{tokenizer_vocab_size:,} of {name}; '
            'set --tokenizer=auto, its own, or choose another checkpoint'
        )
