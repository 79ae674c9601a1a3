# python -m pytest tests/test_pretrained.py
"""A checkpoint must give the very numbers that its makers' code gives, or be refused by name; nothing in between."""

import json
import os
import random
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import model as ours
import pretrained
from model import Config, Transformer

transformers = pytest.importorskip('transformers')
from safetensors.torch import load_file, save_file  # noqa: E402, comes with transformers

RAW = os.environ.get('NANOSENTIMENT_RAW')
ROOT = Path(__file__).resolve().parent.parent
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


@pytest.mark.parametrize('family, kind, fresh, dropped', [
    ('gpt2', 'LMHeadModel', ['head'], []),
    ('gpt2', 'ForTokenClassification', ['head'], ['classifier']),
    ('bert', 'ForPreTraining', ['head'], ['cls']),
    ('bert', 'ForTokenClassification', ['pooler', 'head'], ['classifier']),
    ('distilbert', 'ForMaskedLM', ['pooler', 'head'], ['vocab']),
    ('distilbert', 'ForQuestionAnswering', ['pooler', 'head'], ['qa_outputs']),
    ('roberta', 'ForMaskedLM', ['pooler', 'head'], ['lm_head']),
    ('roberta', 'ForTokenClassification', ['pooler', 'head'], ['classifier']),
])
def test_heads_for_other_tasks_are_dropped_and_said_so(family, kind, fresh, dropped, tmp_path):
    """A token classifier's head has the name and the size of ours, but never saw a text's vector."""
    theirs = make(tmp_path, family, kind)
    model = Transformer.from_pretrained(str(tmp_path), 3)
    assert model.loaded['fresh'] == fresh
    assert {name.split('.')[0].split('_transform')[0].split('_layer')[0] for name in model.loaded['dropped']} == set(dropped)
    body = getattr(theirs, theirs.base_model_prefix)
    idx, lengths, inputs = batch(family)
    mean = Transformer.from_pretrained(str(tmp_path), 3, pool='mean', head='linear')
    with torch.no_grad():
        states, real = body(**inputs).last_hidden_state, inputs['attention_mask'][..., None].double()
    assert (logits(mean, idx, lengths)[0] - (states * real).sum(1) / real.sum(1)).abs().max() < EXACT


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('norm_first', [True, False])
def test_block_is_torchs_encoder_layer(family, norm_first):
    """A second witness, which needs nobody's checkpoint."""
    gelu = 'tanh' if family == 'gpt2' else 'none'
    config = Config(n_embd=32, n_head=4, n_inner=80, causal=False, pool='first', pre_norm=norm_first, gelu='exact', eps=1e-5)
    config.gelu = 'tanh' if gelu == 'tanh' else 'exact'
    block = ours.Block(config).double()
    layer = torch.nn.TransformerEncoderLayer(
        32, 4, 80, dropout=0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64,
        activation=lambda x: torch.nn.functional.gelu(x, approximate=gelu),
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
