"""The transformer: what its logits depend on, its shortcuts, its loss, its parameter groups."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from model import Config, Transformer

SIZES = dict(block_size=24, vocab_size=50, n_layer=3, n_head=4, n_embd=32, n_class=3)
BERT = dict(causal=False, pre_norm=False, pool='first', gelu='exact')
FAMILIES = {
    'gpt2': dict(),
    'bert': BERT | dict(eps=1e-12, n_type=2, head='tanh'),
    'distilbert': BERT | dict(eps=1e-12, head='relu'),
    'roberta': BERT | dict(n_type=1, pos_offset=2, head='tanh'),
    'mean': dict(causal=False, pool='mean'),
    'causal mean': dict(pool='mean'),
}
LENGTHS = torch.tensor([24, 1, 7, 16])
IS_REAL = torch.arange(24) < LENGTHS[:, None]  # (B, T), not padding


def make_model(dtype=torch.float32, **fields):
    """A model with large weights everywhere: at their initial scale a mistake moves no logit."""
    torch.manual_seed(0)
    model = Transformer(Config(**SIZES | fields)).to(dtype).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def make_batch():
    """idx (4, 24), lengths (4,), targets (4,)"""
    torch.manual_seed(1)
    idx = torch.randint(0, 50, (4, 24))
    return idx, LENGTHS, torch.tensor([0, 1, 2, 0])


def record_inputs(module):
    """A list to which each call of the module adds its first argument."""
    inputs = []
    module.register_forward_pre_hook(lambda module, args: inputs.append(args[0].detach()))
    return inputs


def record_outputs(module):
    """A list to which each call of the module adds its result."""
    outputs = []
    module.register_forward_hook(lambda module, args, output: outputs.append(output.detach()))
    return outputs


# -----------------------------------------------------------------------------
# logits


@pytest.mark.parametrize('family', FAMILIES)
@torch.no_grad()
def test_logits_depend_on_the_text_alone(family):
    """If the head reads padding, a text's label depends on the texts that share its batch."""
    model = make_model(**FAMILIES[family])
    idx, lengths, _ = make_batch()
    logits, _ = model(idx, lengths)

    alone = [model(idx[i : i + 1, :n], lengths[i : i + 1])[0] for i, n in enumerate(lengths)]
    other_padding = torch.where(IS_REAL, idx, torch.randint(0, 50, idx.shape))
    assert (other_padding != idx).any()
    padded, _ = model(other_padding, lengths)
    reversed_order, _ = model(idx.flip(0), lengths.flip(0))

    assert (logits - torch.cat(alone)).abs().max() < 1e-5
    assert (logits - padded).abs().max() < 1e-5
    assert (logits - reversed_order.flip(0)).abs().max() < 1e-5
    assert (logits[0] - logits[3]).abs().max() > 1e-3  # but on the text they do depend


@torch.no_grad()
def test_a_causal_model_never_looks_to_the_right():
    """A leak would make the next-token loss worthless, and right padding wrong."""
    model = make_model()
    idx, _, targets = make_batch()
    states = record_outputs(model.ln)
    changed = idx.clone()
    changed[:, 10] = (idx[:, 10] + 1) % 50

    for x in (idx, changed):
        model(x, torch.full((4,), 24), targets, lm_weight=1.0)

    change = (states[0] - states[1]).abs().amax(dim=(0, 2))  # (T,)
    assert change[:10].max() < 1e-5
    assert change[10:].min() > 1e-3


@pytest.mark.parametrize('family', ['gpt2', 'bert', 'distilbert', 'roberta'])
@torch.no_grad()
def test_the_last_block_may_compute_one_position_only(family):
    """The shortcut gives what all positions give, in float64."""
    model = make_model(torch.float64, **FAMILIES[family])
    idx, lengths, targets = make_batch()
    shortcut, _ = model(idx, lengths, targets)
    # next-token prediction needs all positions
    all_positions, _ = model(idx, lengths, targets, lm_weight=1.0)
    assert (shortcut - all_positions).abs().max() < 1e-6  # logits leave as float32


# -----------------------------------------------------------------------------
# initial weights


@pytest.mark.parametrize('family', FAMILIES)
def test_the_first_loss_is_that_of_a_guess(family):
    """ln(n_class). More means that training begins with unlearning, and hides bugs in the loss."""
    torch.manual_seed(0)
    model = Transformer(Config(**SIZES | FAMILIES[family]))
    _, losses = model(*make_batch())
    assert losses.mean().item() == pytest.approx(math.log(3), abs=0.05)


@pytest.mark.parametrize('pre_norm', [True, False])
def test_initial_weights_are_those_of_the_table(pre_norm):
    """The table in the docstring of _init_weights."""
    torch.manual_seed(0)
    model = Transformer(Config(**SIZES | dict(n_embd=128, pre_norm=pre_norm, causal=pre_norm)))
    for name, p in model.named_parameters():
        std = 0.02
        if 'c_proj.weight' in name and pre_norm:
            std = 0.02 / math.sqrt(2 * 3)
        if p.dim() == 2 and p.numel() > 1000:
            assert p.std().item() == pytest.approx(std, rel=0.1), name
        if p.dim() == 1:
            is_norm_weight = 'ln' in name and 'weight' in name
            assert (p == (1 if is_norm_weight else 0)).all(), name


# -----------------------------------------------------------------------------
# loss


def test_the_loss_is_weighted_smoothed_adjusted_cross_entropy():
    """Each option against its formula; a mistake here would only show as a worse model."""
    model = make_model(torch.float64)
    idx, lengths, targets = make_batch()
    weight = torch.tensor([0.5, 1.0, 3.0])
    prior = torch.tensor([0.7, 0.2, 0.1]).log()

    logits, losses = model(
        idx, lengths, targets, class_weight=weight, prior=prior, label_smoothing=0.1
    )

    log_p = F.log_softmax(logits + prior, dim=-1)
    of_target = weight[targets] * log_p[torch.arange(4), targets]
    of_all = (weight * log_p).sum(dim=-1)  # torch smooths with each label's own weight
    torch.testing.assert_close(losses, -(0.9 * of_target + 0.1 / 3 * of_all))


@torch.no_grad()
def test_the_next_token_loss_is_the_mean_over_real_tokens():
    """Padding must teach nothing, and a text of one token has nothing to predict."""
    model = make_model(torch.float64)
    idx, lengths, targets = make_batch()
    states = record_outputs(model.ln)
    _, losses = model(idx, lengths, targets)
    _, losses_with_lm = model(idx, lengths, targets, lm_weight=1.0)

    lm_losses = (losses_with_lm - losses).tolist()
    for i, n in enumerate(lengths.tolist()):
        expected = 0.0
        if n > 1:
            logits = states[-1][i, : n - 1] @ model.wte.weight.T
            expected = F.cross_entropy(logits, idx[i, 1:n]).item()
        assert lm_losses[i] == pytest.approx(expected, abs=1e-4)


# -----------------------------------------------------------------------------
# token dropout


def test_a_dropped_token_is_as_if_it_were_not_there():
    """Zeros in its place would make the pooled mean smaller in training than in use."""
    model = make_model(torch.float64, token_dropout=0.4, causal=False, pool='mean')
    torch.nn.init.zeros_(model.wpe.weight)  # otherwise positions would tell of the dropped tokens
    idx, lengths, _ = make_batch()
    embeddings = record_inputs(model.h[0])
    model.train()
    logits, _ = model(idx, lengths)

    is_kept = (embeddings[0] != 0).any(dim=2)  # (B, T)
    share_dropped = 1 - is_kept.sum() / lengths.sum()
    assert 0.2 < share_dropped < 0.6
    assert is_kept[:, 0].all()

    model.eval()
    for i in range(len(idx)):
        kept_tokens = idx[i : i + 1, is_kept[i]]
        shorter, _ = model(kept_tokens, torch.tensor([kept_tokens.size(1)]))
        torch.testing.assert_close(logits[i], shorter[0], rtol=0, atol=1e-12)


def test_the_token_that_the_head_reads_is_never_dropped():
    model = make_model(token_dropout=0.9, pool='last')
    torch.nn.init.zeros_(model.wpe.weight)  # so that a dropped token is zero
    idx, lengths, _ = make_batch()
    embeddings = record_inputs(model.h[0])
    model.train()
    model(idx, lengths)
    is_kept = (embeddings[0] != 0).any(dim=2)
    assert is_kept[torch.arange(len(idx)), lengths - 1].all()
    assert is_kept.sum() < lengths.sum() / 2


def test_token_dropout_hides_words_from_a_causal_model():
    """It has no mask that could leave a token out, so the word itself must go."""
    model = make_model(token_dropout=0.4)
    idx, lengths, _ = make_batch()
    embeddings = record_inputs(model.h[0])
    model.train()
    for words in (idx, (idx + 1) % 50):
        torch.manual_seed(0)
        model(words, lengths)

    word_part = embeddings[0] - model.wpe.weight[:24].detach()
    is_hidden = (word_part == 0).all(dim=2)
    word_embeddings = model.wte(idx).detach()
    assert 0.2 < is_hidden[IS_REAL].float().mean() < 0.6
    torch.testing.assert_close(
        word_part[~is_hidden], word_embeddings[~is_hidden], rtol=0, atol=1e-6
    )
    assert torch.equal(embeddings[0][is_hidden], embeddings[1][is_hidden])
    assert not torch.equal(embeddings[0][~is_hidden], embeddings[1][~is_hidden])

    # in use nothing is hidden
    model.eval()
    assert torch.equal(model(idx, lengths)[0], model(idx, lengths)[0])


# -----------------------------------------------------------------------------
# optimizer


@pytest.mark.parametrize('family', ['bert', 'gpt2'])
def test_each_parameter_has_its_decay_and_its_rate(family):
    """A bias that decays, or a weight in no group, trains wrongly without a word."""
    model = Transformer(Config(**SIZES | FAMILIES[family]))
    model.freeze(1)
    optimizer = model.configure_optimizer(0.1, 1e-3, (0.9, 0.99), layer_decay=0.5, head_lr=1e-2)

    group_of = {}
    n_grouped = 0
    for group in optimizer.param_groups:
        for p in group['params']:
            group_of[id(p)] = group
            n_grouped += 1
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert n_grouped == len(group_of) == len(trained)

    # BERT's ln is at the entrance, and frozen; GPT-2's is at the exit
    scales = {'h.1': 0.25, 'h.2': 0.5, 'pooler': 10.0, 'head': 10.0, 'ln.': 1.0}
    for name, p in trained.items():
        group = group_of[id(p)]
        (scale,) = [scale for start, scale in scales.items() if name.startswith(start)]
        assert group['weight_decay'] == (0.1 if p.dim() == 2 else 0.0), name
        assert group['lr_scale'] == pytest.approx(scale), name


@pytest.mark.parametrize('family', ['bert', 'gpt2'])
def test_frozen_layers_stay_and_all_else_moves(family):
    """BERT's norm at the entrance and its segment embedding are frozen with the embeddings."""
    model = make_model(**FAMILIES[family] | {'pool': 'mean'})
    idx, lengths, targets = make_batch()
    before = {name: p.clone() for name, p in model.named_parameters()}
    frozen = ['wte.', 'wpe.', 'wse.', 'h.0.', 'h.1.']
    if family == 'bert':
        frozen.append('ln.')

    model.freeze(2)
    optimizer = model.configure_optimizer(0.1, 1e-2, (0.9, 0.99))
    _, losses = model(idx, lengths, targets)
    losses.mean().backward()
    optimizer.step()

    for name, p in model.named_parameters():
        has_stayed = torch.equal(p, before[name])
        assert has_stayed == name.startswith(tuple(frozen)), name


def test_no_more_layers_can_be_frozen_than_there_are():
    with pytest.raises(ValueError, match='the model has 3 layers'):
        make_model().freeze(4)


def test_eight_texts_can_be_learned_by_heart():
    torch.manual_seed(0)
    model = Transformer(Config(**SIZES))
    idx = torch.randint(0, 50, (8, 24))
    lengths = torch.randint(1, 25, (8,))
    targets = torch.randint(0, 3, (8,))
    optimizer = model.configure_optimizer(0.0, 3e-3, (0.9, 0.99))
    for _ in range(60):
        optimizer.zero_grad()
        _, losses = model(idx, lengths, targets)
        losses.mean().backward()
        optimizer.step()
    logits, _ = model(idx, lengths)
    assert torch.equal(logits.argmax(dim=1), targets)


# -----------------------------------------------------------------------------
# the rest


def test_flops_are_those_that_torch_counts():
    """The share of the processor's peak that bench.py prints is computed from this formula."""
    # torch counts no CPU attention kernel; with dropout, attention consists of matrix products
    model = Transformer(Config(**SIZES | dict(pool='mean', n_embd=128, dropout=0.1)))
    idx, _, targets = make_batch()
    with FlopCounterMode(display=False) as counter:
        _, losses = model(idx, torch.full((4,), 24), targets)
        losses.sum().backward()
    n_tokens = 4 * 24
    expected = model.flops_per_token(24) * n_tokens
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    'fields',
    [dict(n_head=5), dict(pool='first'), dict(pool='max'), dict(gelu='relu'), dict(head='mlp')],
)
def test_a_config_that_cannot_be_is_refused(fields):
    with pytest.raises(ValueError):
        Config(**SIZES | fields)
