# python -m pytest tests/test_model.py
# the transformer: what its logits may depend on, its shortcuts against the long way, its loss, its optimizer groups

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from model import Config, Transformer, attend, drop

SIZES = dict(block_size=24, vocab_size=50, n_layer=3, n_head=4, n_embd=32, n_class=3)
FAMILIES = {
    'gpt2': dict(),
    'bert': dict(causal=False, pre_norm=False, pool='first', gelu='exact', eps=1e-12, n_type=2, head='tanh'),
    'distilbert': dict(causal=False, pre_norm=False, pool='first', gelu='exact', eps=1e-12, head='relu'),
    'roberta': dict(causal=False, pre_norm=False, pool='first', gelu='exact', n_type=1, pos_offset=2, head='tanh'),
    'mean': dict(causal=False, pool='mean'),
    'causal mean': dict(pool='mean'),
}
LENGTHS = torch.tensor([24, 1, 7, 16])


def make(dtype=torch.float32, **family):
    """A model whose every weight matters: at its initial scale a mistake may hide in a tiny logit."""
    torch.manual_seed(0)
    model = Transformer(Config(**SIZES | family)).to(dtype).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def batch():
    torch.manual_seed(1)
    return torch.randint(0, 50, (4, 24)), LENGTHS, torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize('family', FAMILIES)
@torch.no_grad()
def test_logits_depend_on_the_text_alone(family):
    """Pooling a pad, or averaging over padding, made others' accuracy depend on who shared the batch."""
    model, (idx, lengths, _) = make(**FAMILIES[family]), batch()
    together = model(idx, lengths)[0]
    alone = torch.cat([model(idx[i : i + 1, :n], lengths[i : i + 1])[0] for i, n in enumerate(lengths)])
    garbage = torch.where(torch.arange(24) < lengths[:, None], idx, torch.randint(0, 50, idx.shape))
    assert (garbage != idx).any()
    for other in (alone, model(garbage, lengths)[0], model(idx.flip(0), lengths.flip(0))[0].flip(0)):
        assert (together - other).abs().max() < 1e-5
    assert (together[0] - together[3]).abs().max() > 1e-3, 'and on the text they do depend'


@pytest.mark.parametrize('family', FAMILIES)
@torch.no_grad()
def test_a_shift_moves_the_embeddings_of_the_tokens(family):
    """As if the table had said so; adversarial training rests on it."""
    model, (_, lengths, _) = make(torch.float64, vocab_size=96, **FAMILIES[family]), batch()
    idx, shift = torch.arange(96).view(4, 24), torch.randn(4, 24, 32, dtype=torch.float64)  # no token twice
    shifted = model(idx, lengths, shift=shift)[0]
    model.wte.weight += shift.view(96, 32)
    assert (shifted - model(idx, lengths)[0]).abs().max() < 1e-12


@torch.no_grad()
def test_a_causal_model_never_looks_right():
    """A leak from the right would make the next-token loss worthless and right padding wrong."""
    model, (idx, _, targets) = make(), batch()
    states = []
    model.ln.register_forward_hook(lambda module, given, out: states.append(out))
    changed = idx.clone()
    changed[:, 10] = (idx[:, 10] + 1) % 50
    for x in (idx, changed):
        model(x, torch.full((4,), 24), targets, lm_weight=1.0)
    moved = (states[0] - states[1]).abs().amax(dim=(0, 2))  # (T,)
    assert moved[:10].max() < 1e-5 and moved[10:].min() > 1e-3


@pytest.mark.parametrize('family', ['gpt2', 'bert', 'distilbert', 'roberta'])
@torch.no_grad()
def test_the_last_block_may_compute_one_position(family):
    """The shortcut (pooled position only) must be exact: same weights, all positions, in float64."""
    model, (idx, lengths, targets) = make(torch.float64, **FAMILIES[family]), batch()
    short, _ = model(idx, lengths, targets)
    long, _ = model(idx, lengths, targets, lm_weight=1.0)  # next-token prediction needs all positions
    assert (short - long).abs().max() < 1e-6  # logits leave as float32


@pytest.mark.parametrize('T', [1, 20, 32, 70, 150])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('written_out', [True, False])
def test_attention_is_torchs_kernel_exactly(written_out, causal, dtype, T, monkeypatch):
    """Which of the two runs depends on device, dtype, length, dropout and a backward pass, how far keys are filled up and how
    many queries go at a time on dtype and length; what comes out, and the gradients, must depend on none of it."""
    dropped = []
    monkeypatch.setattr('model.drop', lambda x, p: dropped.append(x.shape) or x)  # dropout asks for it written out
    torch.manual_seed(0)
    exact = torch.randn(3, 2, 4, T, 8).to(dtype).double()
    mask = None if causal else (torch.arange(T) < torch.tensor([T, (T + 2) // 3])[:, None])[:, None, None]
    ours, theirs = (exact.detach().to(kind).requires_grad_() for kind in (dtype, torch.float64))
    got = attend(*ours, mask, causal, 0.1 * written_out)
    want = F.scaled_dot_product_attention(*theirs, mask, 0.0, causal)
    close = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    assert sum(shape[2] for shape in dropped) == (T if written_out or dtype == torch.bfloat16 else 0)
    assert all(shape[3] % 8 == 0 and (shape[2] <= 64 or not causal) for shape in dropped)
    with torch.no_grad():
        again = attend(*ours, mask, causal, 0.1 * written_out)
        torch.testing.assert_close(again.double(), want, atol=close, rtol=close)
    torch.testing.assert_close(got.double(), want, atol=close, rtol=close)
    got.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=10 * close, rtol=10 * close)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('p', [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_everywhere_alike(p, dtype):
    """Four masks are cut out of one wide draw: each must drop p, they must not know of each other, seeds must repeat them."""
    x = torch.ones(400, 1001, dtype=dtype, requires_grad=True)  # no multiple of four
    torch.manual_seed(0)
    y = drop(x, p)
    kept = (y != 0).flatten()[: 400 * 1000].view(-1, 4).double()
    assert (kept.mean(0) - (1 - p)).abs().max() < 6 * (p * (1 - p) / 1e5) ** 0.5  # six deviations
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 6 / 1e5**0.5
    assert y[y != 0].unique().item() == pytest.approx(1 / (1 - p), rel=1e-2 if dtype == torch.bfloat16 else 1e-6)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # what was dropped learns nothing
    torch.manual_seed(0)
    assert torch.equal(drop(x, p), y) and not torch.equal(drop(x, p), y)
    assert drop(x, p, training=False) is x and drop(x, 0.0) is x and not drop(x, 1.0).any()
    assert (drop(x, 1 - 1e-7) != 0).double().mean() < 1e-4  # more than 16 bits can say


@pytest.mark.parametrize('family', FAMILIES)
def test_a_new_model_knows_nothing(family):
    """The first loss is ln(n_class); more means an init that starts by unlearning, and hides bugs in the loss."""
    torch.manual_seed(0)
    _, loss = Transformer(Config(**SIZES | FAMILIES[family]))(*batch())
    assert abs(loss.mean().item() - math.log(3)) < 0.05


def test_init_is_the_table_in_its_docstring():
    torch.manual_seed(0)
    for pre_norm in (True, False):
        model = Transformer(Config(**SIZES | dict(n_embd=128, pre_norm=pre_norm, causal=pre_norm)))
        residual = 0.02 / math.sqrt(2 * 3) if pre_norm else 0.02
        for name, p in model.named_parameters():
            std = residual if 'c_proj.weight' in name else 0.02
            if p.dim() == 2 and p.numel() > 1000:
                assert abs(p.std().item() / std - 1) < 0.1, name
            elif p.dim() == 1:
                assert (p == (1 if 'ln' in name and 'weight' in name else 0)).all(), name


def test_loss_is_weighted_smoothed_adjusted_cross_entropy():
    """Each option against its formula written out; a silent mistake here would only show as a worse model."""
    model, (idx, lengths, y) = make(torch.float64), batch()
    weight, prior = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([0.7, 0.2, 0.1]).log()
    logits, loss = model(idx, lengths, y, class_weight=weight, prior=prior, label_smoothing=0.1)
    logp = F.log_softmax(logits + prior, dim=-1)
    smooth = 0.1 / 3 * (weight * logp).sum(-1)  # torch smooths with each label's own weight
    expected = -(0.9 * weight[y] * logp[torch.arange(4), y] + smooth)
    torch.testing.assert_close(loss, expected)


@torch.no_grad()
def test_next_token_loss_is_the_mean_over_real_tokens():
    """Padding must teach nothing, and a text of one token has nothing to predict."""
    model, (idx, lengths, y) = make(torch.float64), batch()
    extra = model(idx, lengths, y, lm_weight=1.0)[1] - model(idx, lengths, y)[1]
    states = []
    model.ln.register_forward_hook(lambda module, given, out: states.append(out))
    model(idx, lengths, y, lm_weight=1.0)
    for i, n in enumerate(lengths.tolist()):
        logits = states[0][i, : n - 1] @ model.wte.weight.T
        expected = F.cross_entropy(logits, idx[i, 1:n]) if n > 1 else torch.tensor(0.0)
        assert abs(extra[i].item() - expected.item()) < 1e-4


@pytest.mark.parametrize('family', ['bert', 'gpt2'])
def test_decay_and_rates_are_grouped(family):
    """A bias that decays, or a weight in no group, trains wrongly and silently; so does a norm of neither body nor head."""
    model = Transformer(Config(**SIZES | FAMILIES[family]))
    model.freeze(1)
    groups = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), layer_decay=0.5, head_lr=1e-2)[0].param_groups
    found = [(id(p), g) for g in groups for p in g['params']]
    where = dict(found)
    assert len(found) == len(where) == sum(p.requires_grad for p in model.parameters())
    scale = {'h.1': 0.25, 'h.2': 0.5, 'pooler': 10.0, 'head': 10.0, 'ln.': 1.0}  # bert's is at the entrance, and frozen
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert where[id(p)]['weight_decay'] == (0.1 if p.dim() == 2 else 0.0), name
            assert where[id(p)]['head'] == name.startswith(('pooler', 'head', 'ln.')), name
            assert where[id(p)]['scale'] == pytest.approx(next(s for start, s in scale.items() if name.startswith(start))), name


def test_frozen_layers_stay_and_the_rest_moves():
    model, (idx, lengths, y) = make(), batch()
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.freeze(2)
    (optimizer,) = model.configure_optimizers(0.1, 1e-2, (0.9, 0.99))
    model(idx, lengths, y)[1].mean().backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith(('wte', 'wpe', 'h.0', 'h.1')), name


def test_sparse_rows_move_only_what_was_read():
    """From rest, with no decay, Adam for a step's own rows is Adam for all: a norm over tokens instead of ids is not."""
    idx, lengths, targets = batch()
    idx = idx % 30  # ids repeat, and 20 rows of the table are never read
    after = []
    for sparse in (False, True):
        model = make(dtype=torch.float64, token_dropout=0.0)
        before = model.wte.weight.clone()
        optimizers = model.configure_optimizers(0.0, 1e-2, (0.9, 0.99), sparse=sparse)
        (1e6 * model(idx, lengths, targets)[1].sum()).backward()  # far above epsilon, which the two place differently
        assert model.wte.weight.grad.is_sparse == sparse and len(optimizers) == 1 + sparse
        norms = model.clip_grad(1e5), model.clip_grad(0.0)
        for optimizer in optimizers:
            optimizer.step()
        after.append((*norms, model.wte.weight, model.h[0].mlp.c_fc.weight))
        assert torch.equal(model.wte.weight[30:], before[30:]) and not torch.equal(model.wte.weight[:30], before[:30])
    for dense, rows in zip(*after):
        torch.testing.assert_close(rows, dense, rtol=1e-6, atol=1e-6)
    assert after[0][0] > 1e5 and after[0][1] == pytest.approx(1e5), 'clipped, and what it was before is told'


def test_a_dropped_token_is_as_if_it_were_not_there():
    """Left in as zeros it made the mean of training smaller than that of use: SST-2's nets then leaned to one label."""
    model, (idx, lengths, _) = make(token_dropout=0.4, causal=False, pool='mean', dtype=torch.float64), batch()
    torch.nn.init.zeros_(model.wpe.weight)  # or the places would tell
    seen = []
    model.h[0].register_forward_pre_hook(lambda module, given: seen.append((given[0] != 0).any(2)))
    dropped = model.train()(idx, lengths)[0]
    kept = seen[0]
    assert 0.2 < 1 - kept.sum() / lengths.sum() < 0.6 and kept[:, 0].all()
    for text, some, logits in zip(idx, kept, dropped):
        left = text[some][None]
        torch.testing.assert_close(model.eval()(left, torch.tensor([left.size(1)]))[0][0], logits, rtol=0, atol=1e-12)


def test_the_token_that_the_head_reads_is_never_dropped():
    model, (idx, lengths, _) = make(token_dropout=0.9, pool='last'), batch()
    torch.nn.init.zeros_(model.wpe.weight)  # or the places would tell
    model.h[0].register_forward_pre_hook(lambda module, given: seen.append((given[0] != 0).any(2)))
    seen = []
    model.train()(idx, lengths)
    assert seen[0][torch.arange(len(idx)), lengths - 1].all() and seen[0].sum() < lengths.sum() / 2


def test_token_dropout_hides_words_from_a_causal_model_too():
    """There no mask can take a token out, so its word is: nobody may read the label in what was dropped."""
    model, (idx, lengths, _) = make(token_dropout=0.4), batch()
    seen = []
    model.h[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    for text in (idx, (idx + 1) % 50):
        torch.manual_seed(0)
        model.train()(text, lengths)
    places = (seen[0] - model.wpe.weight[: idx.size(1)]).detach()
    gone = (places == 0).all(dim=2)
    assert 0.2 < gone[torch.arange(idx.size(1)) < lengths[:, None]].float().mean() < 0.6
    torch.testing.assert_close(places[~gone], model.wte(idx)[~gone].detach(), rtol=0, atol=1e-6)
    assert torch.equal(seen[0][gone], seen[1][gone]) and not torch.equal(seen[0][~gone], seen[1][~gone])
    assert torch.equal(model.eval()(idx, lengths)[0], model(idx, lengths)[0])


def test_reinit_draws_the_top_anew():
    model = make()
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.reinit(1)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != name.startswith('h.2.'), name


def test_flops_are_those_that_torch_counts():
    """The share of the machine's peak in bench.py rests on this formula."""
    model = Transformer(Config(**SIZES | dict(pool='mean', n_embd=128, dropout=0.1)))  # written out: it knows no CPU kernel
    idx, lengths = torch.randint(0, 50, (4, 24)), torch.full((4,), 24)
    with FlopCounterMode(display=False) as counter:
        model(idx, lengths, torch.tensor([0, 1, 2, 0]))[1].sum().backward()
    assert abs(counter.get_total_flops() / (model.flops_per_token(24) * 4 * 24) - 1) < 0.02


def test_eight_texts_can_be_learned_by_heart():
    torch.manual_seed(0)
    model = Transformer(Config(**SIZES))
    idx, lengths, y = torch.randint(0, 50, (8, 24)), torch.randint(1, 25, (8,)), torch.randint(0, 3, (8,))
    (optimizer,) = model.configure_optimizers(0.0, 3e-3, (0.9, 0.99))
    for _ in range(60):
        optimizer.zero_grad()
        model(idx, lengths, y)[1].mean().backward()
        optimizer.step()
    assert torch.equal(model(idx, lengths)[0].argmax(1), y)


@pytest.mark.parametrize('wrong', [dict(n_head=5), dict(pool='first'), dict(pool='max'), dict(gelu='relu'), dict(head='mlp')])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError):
        Config(**SIZES | wrong)
