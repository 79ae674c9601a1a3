"""
A folder with a checkpoint of the Hugging Face kind -> our Transformer: what differs between GPT-2, BERT, DistilBERT and
RoBERTa in names, sizes and files. A new family is a row in FAMILIES, FIELDS and LAYER and a column in ROWS.
What does not fit to the last tensor is a ValueError of one line, with the names.
"""

import json
import math
import mmap
import os
import re
import zipfile

import torch

from model import Config

WEIGHTS = [f'{name}{kind}' for name in ('model.safetensors', 'pytorch_model.bin') for kind in ('', '.index.json')]

# our Config where a config.json is silent
BERT = dict(causal=False, pre_norm=False, pool='first', gelu='exact', eps=1e-12, n_type=2, head='tanh')
FAMILIES = {'gpt2': {}, 'bert': BERT, 'roberta': BERT, 'distilbert': BERT | dict(n_type=0, head='relu')}
# where it is not: our fields, and theirs in the same order
FIELDS = {
    'ours': 'vocab_size block_size n_layer n_head n_embd n_inner dropout gelu eps head_dropout n_type',
    'gpt2': 'vocab_size n_positions n_layer n_head n_embd n_inner resid_pdrop activation_function layer_norm_epsilon',
    'bert': 'vocab_size max_position_embeddings num_hidden_layers num_attention_heads hidden_size intermediate_size '
    'hidden_dropout_prob hidden_act layer_norm_eps classifier_dropout type_vocab_size',
    'distilbert': 'vocab_size max_position_embeddings n_layers n_heads dim hidden_dim dropout activation - seq_classif_dropout',
}
FIELDS['roberta'] = FIELDS['bert']
DTYPES = dict(F64=torch.float64, F32=torch.float32, F16=torch.float16, BF16=torch.bfloat16, I64=torch.int64)
DTYPES |= dict(I32=torch.int32, I16=torch.int16, I8=torch.int8, U8=torch.uint8, BOOL=torch.bool)
GELU = {'gelu': 'exact', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh'}
# what else would change the arithmetic, and the one value of it that we model
PLAIN = dict(position_embedding_type='absolute', is_decoder=False, add_cross_attention=False, scale_attn_weights=True)
PLAIN |= dict(scale_attn_by_inverse_layer_idx=False, pruned_heads={}, quantization_config=None)
GPT2 = {'Ġthe': 262, 'ĠSolidGoldMagikarp': 43453}  # some of its tokens, as its tokenizer.json writes them
FREE = 'block_size causal dropout head head_dropout pool token_dropout'  # what a user may set against config.json

# our parameters: theirs, after the prefix, in GPT-2, BERT and DistilBERT; q|k|v are stacked, T is stored transposed
LAYER = dict(gpt2='h.{}.', bert='encoder.layer.{}.', distilbert='transformer.layer.{}.')  # before those that begin with h
ROWS = {
    'wte': ('wte', 'embeddings.word_embeddings', 'embeddings.word_embeddings'),
    'wpe': ('wpe', 'embeddings.position_embeddings', 'embeddings.position_embeddings'),
    'wse': ('', 'embeddings.token_type_embeddings', ''),
    'ln': ('ln_f', 'embeddings.LayerNorm', 'embeddings.LayerNorm'),
    'h.{}.attn.c_attn': ('attn.c_attn T', 'attention.self.query|key|value', 'attention.q_lin|k_lin|v_lin'),
    'h.{}.attn.c_proj': ('attn.c_proj T', 'attention.output.dense', 'attention.out_lin'),
    'h.{}.ln_1': ('ln_1', 'attention.output.LayerNorm', 'sa_layer_norm'),
    'h.{}.mlp.c_fc': ('mlp.c_fc T', 'intermediate.dense', 'ffn.lin1'),
    'h.{}.mlp.c_proj': ('mlp.c_proj T', 'output.dense', 'ffn.lin2'),
    'h.{}.ln_2': ('ln_2', 'output.LayerNorm', 'output_layer_norm'),
    'pooler': ('', 'pooler.dense', 'pre_classifier'),
    'head': ('score', 'classifier', 'classifier'),
}
KEYS = {f: {k: LAYER[f] * k.startswith('h.') + row[i] for k, row in ROWS.items()} for i, f in enumerate(LAYER)}
KEYS['roberta'] = KEYS['bert'] | {'pooler': 'classifier.dense', 'head': 'classifier.out_proj'}
# theirs that we may leave: buffers that are no weights, and heads, which are mentioned
BUFFERS = r'h\.\d+\.attn\.(masked_)?bias|embeddings\.(position|token_type)_ids'
HEADS = r'(lm_head|cls|vocab_\w+|pooler|classifier|pre_classifier|score|qa_outputs|multiple_choice_head)\..*'


def read_json(*path):
    try:
        with open(os.path.join(*path), encoding='utf-8') as f:
            return dict(json.load(f))
    except (ValueError, TypeError) as e:
        raise ValueError(f'{os.path.join(*path)} is no JSON object ({e}); delete it, then fetch it again') from None


def weight_files(folder):
    """-> the files that hold the weights, one or several; [] if some are missing."""
    here = os.listdir(folder) if os.path.isdir(folder) else []
    here = [name for name in here if os.path.exists(os.path.join(folder, name))]  # caches are of links, which may lead nowhere
    for name in WEIGHTS:
        files = shards(folder, name) if name in here else [name]
        if set(files) <= set(here):
            return files
    return []


def shards(folder, name):
    """One of WEIGHTS -> the files it stands for: itself, or those an index lists."""
    names = dict(read_json(folder, name).get('weight_map') or {}).values() if name.endswith('.index.json') else [name]
    return sorted({os.path.basename(name) for name in names})


def read_config(folder):
    """config.json -> (itself, family, fields of our Config)"""
    path, theirs = os.path.join(folder, 'config.json'), read_json(folder, 'config.json')
    family = theirs.get('model_type')
    if family not in FAMILIES:
        raise ValueError(f'{path}: model_type={family} is none of {", ".join(FAMILIES)}; choose another checkpoint')
    names = dict(zip(FIELDS['ours'].split(), FIELDS[family].split()))
    fields = {ours: theirs[name] for ours, name in names.items() if theirs.get(name) is not None}
    if absent := [names[ours] for ours in FIELDS['ours'].split()[:5] if type(fields.get(ours)) is not int or fields[ours] < 1]:
        raise ValueError(f'{path} does not say {", ".join(absent)} in whole numbers; fetch it again')
    odd = [name for name, plain in PLAIN.items() if theirs.get(name, plain) not in (plain, None)]
    odd += [names['gelu']] * (fields.get('gelu', 'gelu') not in GELU)
    odd += ['is_causal'] * (family == 'gpt2' and theirs.get('is_causal') is False)  # the others take no notice of it
    if odd:
        found = ', '.join(f'{name}={theirs[name]}' for name in odd)
        raise ValueError(f'{path}: {found} is nothing we can compute; choose another checkpoint')
    if 'gelu' in fields:
        fields['gelu'] = GELU[fields['gelu']]
    if family == 'roberta':  # its positions count on from the padding token's id
        pad = theirs.get('pad_token_id')
        fields['pos_offset'] = 2 if pad is None else pad + 1
        fields['block_size'] -= fields['pos_offset']
    if 'head_dropout' in names and 'head_dropout' not in fields:
        fields['head_dropout'] = fields.get('dropout', 0.1)
    return theirs, family, FAMILIES[family] | fields


def read_safetensors(path):
    """Eight bytes of length, a JSON header, raw numbers -> {name: tensor}, mapped rather than read."""
    with open(path, 'rb') as f:
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants a buffer that it could write to
    start, tensors = 8 + int.from_bytes(data[:8], 'little'), {}
    for name, info in json.loads(data[8:start]).items():
        if name != '__metadata__':
            (begin, end), dtype, n = info['data_offsets'], DTYPES[info['dtype']], math.prod(info['shape'])
            if end - begin != n * dtype.itemsize or start + end > len(data):
                raise ValueError(f'{name} lies outside the file')
            flat = torch.frombuffer(data, dtype=dtype, count=n, offset=start + begin) if n else torch.empty(0, dtype=dtype)
            tensors[name] = flat.view(info['shape'])
    return tensors


def read_weights(folder, prefix):
    """All tensors of a folder, without the prefix, LayerNorm's gamma and beta called weight and bias."""
    tensors = {}
    for path in (os.path.join(folder, file) for file in weight_files(folder)):
        try:
            if path.endswith('.safetensors'):
                found = read_safetensors(path)
            else:  # torch's format of before 2020 is no zip archive and cannot be mapped
                found = torch.load(path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path))
            for name, tensor in found.items():
                if not isinstance(tensor, torch.Tensor):
                    raise ValueError(f'{name} is no tensor')
                name = re.sub(r'\.gamma\Z', '.weight', re.sub(r'\.beta\Z', '.bias', name))
                if tensors.setdefault(name.removeprefix(prefix), tensor) is not tensor:
                    raise ValueError(f'{name} is there twice')
        except Exception as e:  # cut short, a page of HTML, code instead of weights, ...
            reason = f'{type(e).__name__}: {e}'.split('\n')[0]
            raise ValueError(f'{path} cannot be read ({reason}); fetch it again') from None
    if not tensors:
        raise ValueError(f'{folder} lacks {" or ".join(WEIGHTS[::2])}, or a part of it; fetch it again')
    return tensors


def check_tokens(folder, state, n_vocab, n_rows):
    """
    ValueError where a checkpoint of n_rows embeddings does not know the n_vocab tokens of a tokenizer, given as its state():
    there are GPT-2s of all languages, whose vocabularies are as large as GPT-2's. Asks its tokenizer.json, if it has one.
    """
    own = os.path.join(folder, 'tokenizer.json')
    theirs = read_json(own).get('model', {}).get('vocab') if os.path.exists(own) else None
    if state['kind'] == 'json':
        same = theirs in (None, json.loads(state['text'])['model']['vocab'])
    else:  # bpe<N> is learned from our texts, so no checkpoint knows it
        same = state['name'] == 'gpt2' and (theirs is None or isinstance(theirs, dict) and GPT2.items() <= theirs.items())
    if not same or n_vocab > n_rows:
        found = f'{folder} has {n_rows:,} tokens and does not know the {n_vocab:,} of {state["name"]}'
        raise ValueError(f'{found}; set --tokenizer=auto, its own, or choose another checkpoint')


def load(cls, folder, n_class, labels=None, keep_layers=0, **settings):
    """
    Folder -> cls in float32 with the weights of the checkpoint; settings are those of FREE, and None leaves one to the
    checkpoint. keep_layers: the lowest so many, 0 for all (https://arxiv.org/abs/2004.03844).
    model.loaded is a dict that tells: source, the folder; labels of the head if it came along, else None; lists of what
    is fresh (ours), what is dropped (theirs), and notes. A head for `labels` in another order is put in order.
    """
    theirs, family, fields = read_config(folder)
    settings = {key: value for key, value in settings.items() if value is not None}
    if bad := settings.keys() - FREE.split():
        raise ValueError(f'{", ".join(sorted(bad))} is up to the checkpoint; what can be set is {FREE}')
    limit, wanted, keys, notes = fields['block_size'], settings.get('block_size', 0), KEYS[family], []
    if wanted > limit:
        raise ValueError(f'block_size {wanted} is more than the {limit} positions of {folder}; set it to {limit} or less')
    if keep_layers > (n_layer := fields['n_layer']):
        raise ValueError(f'keep_layers {keep_layers} is more than the {n_layer} of {folder}; set it to {n_layer} or less')
    fields['n_layer'] = keep_layers or n_layer
    model = cls(Config(n_class=n_class, **fields | settings))
    if fields['n_layer'] < n_layer:
        notes.append(f'the lowest {keep_layers} of {n_layer} layers')
    if 0 < wanted < limit:
        notes.append(f'positions cropped from {limit} to {wanted}')
    tensors = read_weights(folder, 'transformer.' if family == 'gpt2' else f'{family}.')

    # the hidden layer and the head may start fresh; a head counts if it is one for texts, and as many labels as ours
    parts = [ours for ours in ('pooler', 'head') if getattr(model, ours) is not None]
    fresh = [ours for ours in parts if not any(key.startswith(f'{keys[ours]}.') for key in tensors)]
    made_for = (theirs.get('architectures') or ['ForSequenceClassification'])[0]
    score = tensors.get(f'{keys["head"]}.weight', model.head.weight)
    if 'head' not in fresh and (score.shape[:1] != (n_class,) or not made_for.endswith('ForSequenceClassification')):
        notes.append(f'the head of this {made_for} is for {score.numel() // model.config.n_embd} labels, ours for {n_class}')
        fresh.append('head')
    missing, misshapen, used = [], [], set()
    with torch.no_grad():
        for ours, p in model.named_parameters():
            stem, _, kind = ours.rpartition('.')
            if stem in fresh:
                continue
            layer = re.findall(r'\.(\d+)\.', stem)  # h.3.mlp.c_fc is the row h.{}.mlp.c_fc, filled with 3
            key, _, turned = keys[re.sub(r'\.\d+\.', '.{}.', stem)].format(*layer).partition(' ')
            path, dot, leaves = key.rpartition('.')
            names = [f'{path}{dot}{leaf}.{kind}' for leaf in leaves.split('|')]
            if ours == 'head.bias' and names[0] not in tensors:  # GPT-2's head has none: it starts at 0, and is right
                fresh.append(ours)
                continue
            used.update(names)
            for name, rows in zip(names, p.chunk(len(names))):
                t = tensors.get(name)
                if t is None:
                    missing.append(name)
                    continue
                t = t.T if turned and t.dim() == 2 else t
                if ours == 'wpe.weight' and t.shape[:1] == (limit + model.config.pos_offset,):
                    t = t[: len(rows)]
                if t.shape == rows.shape and t.is_floating_point():
                    rows.copy_(t)
                else:
                    misshapen.append(f'{name} {list(t.shape)} {t.dtype} for {ours} {list(rows.shape)}')
    not_kept = tuple(f'{keys["h.{}.ln_1"].split("{}")[0]}{i}.' for i in range(fields['n_layer'], n_layer))
    left = {name for name in tensors.keys() - used if not name.startswith(not_kept)}
    unknown = [name for name in left if not re.fullmatch(f'{BUFFERS}|{HEADS}', name)]
    trouble = dict(missing=missing, unknown=unknown, misshapen=misshapen)
    if any(trouble.values()):
        lists = (f'{what}: {", ".join(sorted(names))}' for what, names in trouble.items() if names)
        raise ValueError(f'{folder} does not fit {family}; {"; ".join(lists)}')
    dropped = sorted({name.rpartition('.')[0] for name in left if re.fullmatch(HEADS, name)})
    names = None if 'head' in fresh else [str((theirs.get('id2label') or {}).get(str(i), f'LABEL_{i}')) for i in range(n_class)]
    for same in (str, str.lower):  # letter by letter, or else in any case
        rows = {same(name): i for i, name in enumerate(names or ())}
        if len(rows) == n_class and rows.keys() == {same(label) for label in labels or ()}:
            order, names = [rows[same(label)] for label in labels], list(labels)
            model.head.weight.data, model.head.bias.data = model.head.weight.data[order], model.head.bias.data[order]
    notes += [f'{what}: {", ".join(some)}' for what, some in (('starts fresh', fresh), ('not used', dropped)) if some]
    model.loaded = dict(source=folder, labels=names, fresh=fresh, dropped=dropped, notes=notes)
    return model
