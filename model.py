"""
The whole transformer, in one file: GPT-2, BERT, DistilBERT and RoBERTa are the same class with eight fields set
differently, because they differ in no more than that.

            causal  pre_norm  pool    gelu    eps    n_type  pos_offset  head
GPT-2       True    True      last    tanh    1e-5   0       0           linear
BERT        False   False     first   exact   1e-12  2       0           tanh
DistilBERT  False   False     first   exact   1e-12  0       0           relu
RoBERTa     False   False     first   exact   1e-5   1       2           tanh

References:
1) GPT-2, Radford et al. 2019: https://github.com/openai/gpt-2/blob/master/src/model.py
2) BERT: https://arxiv.org/abs/1810.04805, DistilBERT: https://arxiv.org/abs/1910.01108, RoBERTa: https://arxiv.org/abs/1907.11692
3) the shape of this file and its names: https://github.com/karpathy/nanoGPT
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F


@dataclass
class Config:
    # sizes
    block_size: int = 256  # the most tokens of one text, special tokens included
    vocab_size: int = 2048
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 192
    n_inner: int = 0  # width inside the MLP; 0 means 4 * n_embd, as in all four families
    n_class: int = 3
    dropout: float = 0.0
    head_dropout: float = 0.0  # on the pooled vector, just before the last linear layer
    token_dropout: float = 0.0  # share of tokens hidden in training, never the head's own: https://aclanthology.org/P15-1162
    # what makes a family a family; the defaults are GPT-2's
    causal: bool = True  # tokens look left only
    pre_norm: bool = True  # LayerNorm before each sublayer and once at the exit; else after each and once at the entrance
    pool: str = 'last'  # what the head reads: the 'last' real token, the 'first', or the 'mean' of the real ones
    gelu: str = 'tanh'  # GPT-2's approximation, or 'exact'; nn.GELU() alone is the exact one, a silent 1e-4 on the logits
    eps: float = 1e-5
    n_type: int = 0  # segment embeddings; a single text is segment 0
    pos_offset: int = 0  # RoBERTa counts positions from 2
    head: str = 'linear'  # 'linear', or one hidden layer with 'tanh' or 'relu' before it

    def __post_init__(self):
        self.n_inner = self.n_inner or 4 * self.n_embd
        for name, known in dict(pool='last first mean', gelu='tanh exact', head='linear tanh relu').items():
            if getattr(self, name) not in known.split():
                raise ValueError(f'{name}={getattr(self, name)!r}: choose one of {known}')
        if self.n_embd % self.n_head:
            raise ValueError(f'n_embd {self.n_embd} does not divide into {self.n_head} heads; change n_embd or n_head')
        if self.causal and self.pool == 'first':
            raise ValueError("pool='first' on a causal model reads one token only; set pool to 'last' or 'mean'")


def drop(x, p, training=True):
    """F.dropout; on a CPU with 16 random bits an element in place of 32 drawn one by one, which cost a tenth of a step."""
    if x.device.type != 'cpu' or not (training and 0 < p < 1):
        return F.dropout(x, p, training)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    keep = bits[: x.numel()].view(x.shape) >= min(round(p * 2**16), 2**16 - 1) - 2**15
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


def attend(q, k, v, mask, causal, dropout):
    """softmax(q kT / sqrt(hs)) v: q (B, nh, Tq, hs), k and v (B, nh, T, hs), mask True where a key counts, or None."""
    T, Tq, bf16 = k.size(2), q.size(2), q.dtype == torch.bfloat16
    # on a CPU torch's kernel knows no dropout; in bfloat16 it is slower below 64 tokens, and always if there is a backward pass
    if q.device.type != 'cpu' or (not dropout and (not bf16 or (T >= 64 and not q.requires_grad))):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    if causal and Tq > 64:  # 64 queries at a time, for which later keys need not be computed: .55 of the time at 256 tokens
        q, k, v = (x.split(64, dim=2) for x in (q, k, v))  # pieces joined: the gradient of a slice k[:n] is as long as all of k
        some = [(x, torch.cat(k[: i + 1], dim=2), torch.cat(v[: i + 1], dim=2)) for i, x in enumerate(q)]
        return torch.cat([attend(*x, mask, causal, dropout) for x in some], dim=2)
    mask = torch.ones(Tq, T, dtype=torch.bool).tril(T - Tq if causal else T) if mask is None else mask
    # softmax reads 64 bytes at a time, and what is left of a row number by number: fill rows up with keys that do not count
    n = -T % (64 // q.element_size())
    if n:  # F.pad copies even where there is nothing to fill
        k, v, mask = F.pad(k, (0, 0, 0, n)), F.pad(v, (0, 0, 0, n)), F.pad(mask, (0, n))
    bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, float('-inf'))
    att = torch.add(bias, q @ k.transpose(-2, -1), alpha=q.size(-1) ** -0.5)  # (B, nh, Tq, T + n)
    return drop(F.softmax(att, dim=-1), dropout) @ v  # (B, nh, Tq, hs)


def take(x, at):
    """The rows of x (B, T, C) at positions at (B,), as (B, 1, C); all of x when at is None."""
    return x if at is None else x[torch.arange(x.size(0), device=x.device), at].unsqueeze(1)


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # query, key and value in one product
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.n_head, self.dropout, self.causal = config.n_head, config.dropout, config.causal

    def forward(self, x, mask, at=None):
        B, T, C = x.size()
        if at is None:
            q, k, v = self.c_attn(x).split(C, dim=2)  # each (B, T, C)
        else:  # one position asks, all answer
            weight, bias = self.c_attn.weight, self.c_attn.bias
            q = F.linear(take(x, at), weight[:C], bias[:C])  # (B, 1, C)
            k, v = F.linear(x, weight[C:], bias[C:]).split(C, dim=2)  # each (B, T, C)
        q, k, v = (t.view(B, -1, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))  # (B, nh, T, hs)
        y = attend(q, k, v, mask, self.causal and at is None, self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, -1, C)  # heads side by side again, (B, T or 1, C)
        return drop(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.n_inner)
        self.c_proj = nn.Linear(config.n_inner, config.n_embd)
        self.dropout, self.gelu = config.dropout, 'tanh' if config.gelu == 'tanh' else 'none'

    def forward(self, x):
        x = F.gelu(self.c_fc(x), approximate=self.gelu)  # (B, T, n_inner)
        return drop(self.c_proj(x), self.dropout, self.training)  # (B, T, C)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.eps)
        self.attn = SelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.eps)
        self.mlp = MLP(config)
        self.pre_norm = config.pre_norm

    def forward(self, x, mask, at=None):
        """x (B, T, C) -> (B, T, C), or (B, 1, C) when only position at (B,) of each text is wanted"""
        if self.pre_norm:
            x = take(x, at) + self.attn(self.ln_1(x), mask, at)
            x = x + self.mlp(self.ln_2(x))
        else:
            x = self.ln_1(take(x, at) + self.attn(x, mask, at))
            x = self.ln_2(x + self.mlp(x))
        return x


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size + config.pos_offset, config.n_embd)
        self.wse = nn.Embedding(config.n_type, config.n_embd) if config.n_type else None
        self.ln = nn.LayerNorm(config.n_embd, eps=config.eps)  # at the exit if pre_norm, else at the entrance
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.pooler = nn.Linear(config.n_embd, config.n_embd) if config.head != 'linear' else None
        self.head = nn.Linear(config.n_embd, config.n_class)
        self.apply(self._init_weights)

    def _init_weights(self, module):
        """
        Linear and embedding weights  N(0, 0.02)
        weights into the residual     N(0, 0.02 / sqrt(2 n_layer)) where pre_norm: 2 n_layer of them add up on one path
        every bias                    0
        LayerNorm                     weight 1, bias 0 (torch's own)
        """
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, Block) and module.pre_norm:  # a parent comes after its children, so this has the last word
            for proj in (module.attn.c_proj, module.mlp.c_proj):
                nn.init.normal_(proj.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    def forward(self, idx, lengths, targets=None, class_weight=None, prior=None, label_smoothing=0, lm_weight=0, shift=None):
        """
        idx (B, T) token ids, padded on the right with anything; lengths (B,) real tokens, at least one; targets (B,).
        Returns logits (B, n_class) and, with targets, the loss of each text (B,): the caller averages, since only the
        caller knows how many texts one step has over all micro-batches and processes. shift (B, T, C) moves embeddings.
        class_weight (n_class,) multiplies the cross-entropy; prior (n_class,) log shares, is added to the logits for
        the loss only (logit adjustment, https://arxiv.org/abs/2007.07314); lm_weight adds next-token prediction.
        """
        c, T = self.config, idx.size(1)
        assert T <= c.block_size, f'{T} tokens, but block_size is {c.block_size}'
        pos = torch.arange(T, device=idx.device)  # (T,)
        real = pos < lengths[:, None]  # (B, T)
        # embed
        x = self.wte(idx) if shift is None else self.wte(idx) + shift  # (B, T, C)
        if self.training and c.token_dropout:
            spared = lengths[:, None] - 1 if c.pool == 'last' else 0  # what the head reads; of a mean the first: one must stay
            real = real & ((torch.rand(idx.shape, device=x.device) >= c.token_dropout) | (pos == spared))
            x = x * real[..., None]  # a causal block still sees the place, without its word; masks and means below leave it out
        x = x + self.wpe(pos + c.pos_offset)
        if self.wse is not None:
            x = x + self.wse.weight[0]
        if not c.pre_norm:
            x = self.ln(x)
        x = drop(x, c.dropout, self.training)
        # blocks; causal: no real token sees padding, so no mask. If one position is read, the last block computes just that
        mask = None if c.causal else real[:, None, None]  # (B, 1, 1, T)
        at = {'first': torch.zeros_like(lengths), 'last': lengths - 1, 'mean': None}[c.pool]
        for block in self.h[:-1]:
            x = block(x, mask)  # (B, T, C)
        if lm_weight or at is None:
            x = self.h[-1](x, mask)  # (B, T, C)
        else:
            x, at = self.h[-1](x, real[:, None, None], at), torch.zeros_like(at)  # (B, 1, C), read at its one position, 0
        if c.pre_norm:
            x = self.ln(x)
        # pool
        pooled = (x * real[..., None]).sum(1) / real.sum(1)[:, None] if at is None else take(x, at).squeeze(1)  # (B, C)
        # head
        if self.pooler is not None:
            pooled = self.pooler(drop(pooled, c.head_dropout, self.training))
            pooled = torch.tanh(pooled) if c.head == 'tanh' else F.relu(pooled)
        logits = self.head(drop(pooled, c.head_dropout, self.training)).float()  # (B, n_class)
        # loss
        if targets is None:
            return logits, None
        adjusted = logits if prior is None else logits + prior
        loss = F.cross_entropy(adjusted, targets, class_weight, label_smoothing=label_smoothing, reduction='none')
        if lm_weight:
            loss = loss + lm_weight * self.lm_loss(x, idx, lengths)
        return logits, loss  # (B, n_class), (B,)

    def lm_loss(self, x, idx, lengths):
        """Mean next-token cross-entropy of each text (B,), over its real tokens only, through the tied embedding."""
        known = torch.arange(idx.size(1) - 1, device=idx.device) < lengths[:, None] - 1  # (B, T-1): the next is real too
        nll = F.cross_entropy(F.linear(x[:, :-1][known], self.wte.weight).float(), idx[:, 1:][known], reduction='none')
        return torch.zeros(known.shape, device=nll.device).masked_scatter(known, nll).sum(1) / (lengths - 1).clamp(min=1)

    @classmethod
    def from_pretrained(cls, name, n_class, **settings):
        """A checkpoint of the Hugging Face kind, folder or hub name; see pretrained.py."""
        from pretrained import load

        return load(cls, name, n_class, **settings)

    def num_params(self, embeddings=True):
        """All parameters; without the embedding tables: those that cost a matrix product per token."""
        tables = [m.weight.numel() for m in (self.wte, self.wpe, self.wse) if m is not None]
        return sum(p.numel() for p in self.parameters()) - (0 if embeddings else sum(tables))

    def flops_per_token(self, T):
        """FLOPs of one token forward and backward in a text of T: 6 a weight, 12 T C a layer for attention (PaLM, app. B)."""
        return 6 * self.num_params(embeddings=False) + 12 * self.config.n_layer * self.config.n_embd * T

    def freeze(self, n_layer):
        """The embeddings and the first n_layer blocks stay as they are, the others learn; 0: all learn."""
        if n_layer > len(self.h):
            raise ValueError(f'freeze={n_layer}, but the model has {len(self.h)} layers; set it to fewer')
        body = [self.wte, self.wpe, self.wse, *self.h] + [self.ln] * (not self.config.pre_norm)
        for module in filter(None, body):
            module.requires_grad_(not n_layer or module in [*self.h][n_layer:])

    def reinit(self, n_layer):
        """Draw the top n_layer blocks anew: the last layers of a pretrained net are the most wedded to its old task."""
        top = self.h[len(self.h) - n_layer :]
        if n_layer > len(self.h) or not all(p.requires_grad for p in top.parameters()):  # what is frozen could not learn
            raise ValueError(f'reinit={n_layer}, but the model has {len(self.h)} layers, less those of freeze; set it to fewer')
        for block in top:
            block.apply(self._init_weights)
            for ln in (block.ln_1, block.ln_2):
                ln.reset_parameters()

    def configure_optimizers(self, weight_decay, learning_rate, betas, layer_decay=1.0, head_lr=0.0, sparse=False):
        """
        A list of optimizers: AdamW, where matrices decay, biases and norms do not. Each group has `head`, True for the head,
        its hidden layer and the norm at the exit, and `scale`, the factor on the learning rate: layer_decay to the power of
        the layers above (ULMFiT's discriminative rates, https://arxiv.org/abs/1801.06146); with head_lr the head and its
        hidden layer learn at that rate instead. sparse: also SparseAdam, which moves only the rows of wte that a step has
        read; the others rest, momentum or not, and none decays. The dense pass over 30,000 rows is a tenth of a small step.
        """
        self.wte.sparse, groups = sparse and self.wte.weight.requires_grad, {}
        for name, p in filter(lambda named: named[1].requires_grad, self.named_parameters()):
            top, in_head = len(self.h) + 1, name.startswith(('head', 'pooler'))
            at_exit = in_head or (name.startswith('ln.') and self.config.pre_norm)
            depth = int(name.split('.')[1]) + 1 if name.startswith('h.') else top if at_exit else 0
            scale = head_lr / learning_rate if head_lr and in_head else layer_decay ** (top - depth)
            decay = weight_decay if p.dim() >= 2 else 0.0
            key = 'rows' if self.wte.sparse and name == 'wte.weight' else (decay, scale, at_exit)
            groups.setdefault(key, dict(params=[], weight_decay=decay, scale=scale, head=at_exit))['params'].append(p)
        rows, how = groups.pop('rows', None), dict(lr=learning_rate, betas=betas)
        dense = torch.optim.AdamW(list(groups.values()), **how, fused=True, capturable=self.wte.weight.is_cuda)
        return [dense] + ([torch.optim.SparseAdam([rows], **how)] if rows else [])

    def clip_grad(self, most):
        """Scales the gradients, sparse ones too, to a norm of at most `most`, unless that is 0; returns what it was."""
        for p in self.parameters():
            if p.grad is not None and p.grad.is_sparse:
                p.grad = p.grad.coalesce()  # a row for each id, not for each token: norms are of sums
        grads = [p.grad.values() if p.grad.is_sparse else p.grad for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if most and (norm.is_cuda or norm > most):  # to look at it would be to wait for the GPU
            torch._foreach_mul_(grads, (most / (norm + 1e-6)).clamp(max=1))
        return norm
