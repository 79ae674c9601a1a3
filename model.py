"""
The whole transformer in one file: GPT-2, BERT and their relatives are one class with some fields of
its Config set differently, because they differ in no more than that.

            causal  pre_norm  pool    gelu    eps    n_type  pos_offset  head
GPT-2       True    True      last    tanh    1e-5   0       0           linear
BERT        False   False     first   exact   1e-12  2       0           tanh
DistilBERT  False   False     first   exact   1e-12  0       0           relu
RoBERTa     False   False     first   exact   1e-5   1       2           tanh
ELECTRA     False   False     first   exact   1e-12  2       0           gelu    embedding_size
MPNet       False   False     first   exact   1e-5   0       2           tanh    n_bucket

XLM-RoBERTa and CamemBERT are RoBERTas, multilingual BERT is a BERT.

References:
1) GPT-2, Radford et al. 2019: https://github.com/openai/gpt-2/blob/master/src/model.py
2) BERT: https://arxiv.org/abs/1810.04805, DistilBERT: https://arxiv.org/abs/1910.01108,
   RoBERTa: https://arxiv.org/abs/1907.11692, ELECTRA: https://arxiv.org/abs/2003.10555,
   MPNet: https://arxiv.org/abs/2004.09297
3) the shape of this file and its names: https://github.com/karpathy/nanoGPT
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

from nanosentiment import fast, hub, pretrained

HEAD_ACTIVATIONS = {'tanh': torch.tanh, 'relu': F.relu, 'gelu': F.gelu}
CHOICES = {
    'pool': ('last', 'first', 'mean'),
    'gelu': ('tanh', 'exact'),
    'head': ('linear', *HEAD_ACTIVATIONS),
}


@dataclass
class Config:
    # sizes
    block_size: int = 256  # the most tokens of one text, special tokens included
    vocab_size: int = 2048
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 192
    n_inner: int = 0  # width inside the MLP; 0 means 4 * n_embd, as in most models
    n_class: int = 3  # 0: a language model, which has no head and predicts the next token
    # regularisation
    dropout: float = 0.0
    head_dropout: float = 0.0  # before each linear layer of the head
    token_dropout: float = 0.0  # share of tokens hidden in training (aclanthology.org/P15-1162)
    # what makes a family a family; the defaults are GPT-2's
    causal: bool = True  # tokens look to the left only
    pre_norm: bool = True  # LayerNorm before each sublayer and once at the exit; False: after each
    pool: str = 'last'  # what the head reads: the 'last' real token, the 'first', or the 'mean'
    gelu: str = 'tanh'  # GPT-2's approximation, or 'exact': the two differ by 1e-4 in the logits
    eps: float = 1e-5  # of the LayerNorms
    n_type: int = 0  # segment embeddings; a single text is segment 0
    pair_sep: int = -1  # the token after which segment 1 of a pair begins; -1: all is segment 0
    pos_offset: int = 0  # RoBERTa counts positions from 2
    head: str = 'linear'  # or a hidden layer with 'tanh', 'relu' or 'gelu' below the linear one
    embedding_size: int = 0  # width of ELECTRA's embeddings, which a layer widens; 0: n_embd
    n_bucket: int = 0  # MPNet's attention depends on the distance, in 32 buckets; 0: it does not

    def __post_init__(self):
        if self.n_inner == 0:
            self.n_inner = 4 * self.n_embd
        if self.embedding_size == 0:
            self.embedding_size = self.n_embd
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f'{name}={value!r} is unknown; choose one of {", ".join(choices)}')
        if self.n_embd % self.n_head != 0:
            sizes = f'n_embd {self.n_embd} does not divide into {self.n_head} heads'
            raise ValueError(f'{sizes}; change n_embd or n_head')
        if self.causal and self.pool == 'first':
            reason = "pool='first' on a causal model reads one token only"
            raise ValueError(f"{reason}; set pool to 'last' or 'mean'")
        if self.n_class == 0 and not self.causal:
            reason = 'a language model (n_class=0) predicts the next token, so it must be causal'
            raise ValueError(f'{reason}; begin from scratch or a GPT-2, with causal=True')
        if self.n_bucket > 0 and self.causal:
            reason = 'a model with n_bucket reads in both directions'
            raise ValueError(f'{reason}; set causal to False')


def distance_buckets(T, n_bucket, device):
    """
    The bucket (T, T) of the distance from each query (row) to each key (column), as in T5
    (https://arxiv.org/abs/1910.10683): half of the buckets are for keys on the left, the other half
    for keys on the right. A quarter is for the short distances, one each; the next quarter is for
    those up to 128, ever wider ones, and the last bucket for all that are longer.
    """
    positions = torch.arange(T, device=device)
    offset = positions[None, :] - positions[:, None]  # of the key from the query, (T, T)
    n_side = n_bucket // 2
    n_exact = n_side // 2
    distance = offset.abs()
    # 0 for the first wide bucket and 1 behind the last; -inf at distance 0, where it is not used
    log_share = (distance.float() / n_exact).log() / math.log(128 / n_exact)
    wide = n_exact + (log_share.clamp(min=0) * (n_side - n_exact)).long()
    bucket = torch.where(distance < n_exact, distance, wide.clamp(max=n_side - 1))
    return bucket + n_side * (offset > 0)


def at_position(x, position):
    """x (B, T, ...) at position (B,) of each text -> (B, 1, ...)."""
    rows = torch.arange(x.size(0), device=x.device)
    return x[rows, position].unsqueeze(1)


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        # key, query and value projections of all heads in one matrix
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.causal = config.causal

    def forward(self, x, mask, query_at=None):
        """
        x (B, T, C) -> (B, T, C). The mask is None, or (B, 1, 1, T) and True where a key counts, or
        (B, nh, T, T) and added to the scores. With query_at (B,) only that position of each text is
        a query: (B, 1, C), and an added mask is (B, nh, 1, T).
        """
        B, T, C = x.size()
        if query_at is None:
            q, k, v = self.c_attn(x).split(C, dim=2)  # each (B, T, C)
            is_causal = self.causal
        else:
            # One position of each text is a query, keys and values come from all. What a causal
            # model may not see is padding then, and the mask says so.
            weight, bias = self.c_attn.weight, self.c_attn.bias
            q = F.linear(at_position(x, query_at), weight[:C], bias[:C])  # (B, 1, C)
            k, v = F.linear(x, weight[C:], bias[C:]).split(C, dim=2)  # each (B, T, C)
            is_causal = False
        q = q.view(B, -1, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T or 1, hs)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)

        # softmax(q k^T / sqrt(hs)) v: weights (B, nh, T or 1, T), result (B, nh, T or 1, hs)
        dropout = self.dropout if self.training else 0.0
        if x.device.type == 'cpu':
            y = fast.cpu_attention(q, k, v, mask, is_causal, dropout)
        else:
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
            )
        y = y.transpose(1, 2).reshape(B, -1, C)  # heads side by side again, (B, T or 1, C)

        return fast.dropout(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.n_inner)
        self.c_proj = nn.Linear(config.n_inner, config.n_embd)
        self.dropout = config.dropout
        self.approximate = 'tanh' if config.gelu == 'tanh' else 'none'

    def forward(self, x):
        x = self.c_fc(x)  # (B, T, n_inner)
        x = F.gelu(x, approximate=self.approximate)
        x = self.c_proj(x)  # (B, T, C)
        return fast.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.eps)
        self.attn = SelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.eps)
        self.mlp = MLP(config)
        self.pre_norm = config.pre_norm

    def forward(self, x, mask, query_at=None):
        """As SelfAttention.forward: (B, T, C), or (B, 1, C) for one position (B,) of each text."""
        residual = x if query_at is None else at_position(x, query_at)
        if self.pre_norm:
            x = residual + self.attn(self.ln_1(x), mask, query_at)
            x = x + self.mlp(self.ln_2(x))
        else:
            x = self.ln_1(residual + self.attn(x, mask, query_at))
            x = self.ln_2(x + self.mlp(x))
        return x


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        size = config.embedding_size
        self.wte = nn.Embedding(config.vocab_size, size)
        self.wpe = nn.Embedding(config.block_size + config.pos_offset, size)
        self.wse = nn.Embedding(config.n_type, size) if config.n_type else None
        self.embed_proj = nn.Linear(size, config.n_embd) if size != config.n_embd else None
        self.rel_bias = nn.Embedding(config.n_bucket, config.n_head) if config.n_bucket else None
        # at the exit of a pre-norm model, at the entrance of a post-norm model
        self.ln = nn.LayerNorm(config.n_embd if config.pre_norm else size, eps=config.eps)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        has_pooler = config.head != 'linear'
        self.pooler = nn.Linear(config.n_embd, config.n_embd) if has_pooler else None
        self.head = nn.Linear(config.n_embd, config.n_class) if config.n_class else None
        self.apply(self._init_weights)
        self.loaded = None  # what from_pretrained took and what starts fresh

    def _init_weights(self, module):
        """
        Linear and embedding weights  N(0, 0.02)
        weights into the residual     N(0, 0.02 / sqrt(2 n_layer)) in a pre-norm model, where
                                      2 n_layer of them add up on one path
        every bias                    0
        LayerNorm                     weight 1, bias 0 (torch's own)
        """
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        # apply() visits a parent after its children, so this is the last word on projections
        if isinstance(module, Block) and module.pre_norm:
            std = 0.02 / math.sqrt(2 * self.config.n_layer)
            nn.init.normal_(module.attn.c_proj.weight, std=std)
            nn.init.normal_(module.mlp.c_proj.weight, std=std)

    # -------------------------------------------------------------------------
    # forward

    def forward(
        self,
        idx,
        lengths,
        targets=None,
        class_weight=None,
        prior=None,
        label_smoothing=0,
        lm_weight=0,
    ):
        """
        idx (B, T) token ids, padded on the right with anything; lengths (B,) real tokens, at least
        one; targets (B,) labels. Returns logits (B, n_class) and, with targets, the loss of each
        text (B,). The caller averages them, since only the caller knows how many texts one step has
        over all micro-batches and processes. The logits do not depend on the padding.
        A language model (n_class=0) has no logits of texts: it returns None, and the loss of each
        text, which is that of next-token prediction.

        class_weight (n_class,) multiplies the cross-entropy of each label.
        prior (n_class,) holds log frequencies, which are added to the logits in the loss only
        (logit adjustment, https://arxiv.org/abs/2007.07314).
        lm_weight is the weight of next-token prediction, as an auxiliary loss.
        """
        config = self.config
        x, is_real = self.embed(idx, lengths)  # (B, T, C), (B, T)

        # all blocks but the last; in a causal model no real token sees padding, so there is no mask
        key_mask = is_real[:, None, None]  # (B, 1, 1, T)
        mask = None if config.causal else key_mask
        if self.rel_bias is not None:
            mask = self.distance_mask(key_mask)  # (B, nh, T, T)
        for block in self.h[:-1]:
            x = block(x, mask)  # (B, T, C)

        # the last block; if the head reads a single position, only that one is computed
        is_lm = config.n_class == 0
        needs_all_positions = config.pool == 'mean' or lm_weight > 0 or is_lm
        if needs_all_positions:
            x = self.h[-1](x, mask)  # (B, T, C)
        else:
            position = self.head_position(lengths)  # (B,)
            last_mask = key_mask  # (B, 1, 1, T)
            if self.rel_bias is not None:
                by_query = mask.transpose(1, 2)  # (B, T, nh, T)
                last_mask = at_position(by_query, position).transpose(1, 2)  # (B, nh, 1, T)
            x = self.h[-1](x, last_mask, position)  # (B, 1, C)
        if config.pre_norm:
            x = self.ln(x)
        if is_lm:
            return None, self.lm_losses(x, idx, lengths)

        # pool
        if config.pool == 'mean':
            pooled = (x * is_real[..., None]).sum(1) / is_real.sum(1)[:, None]  # (B, C)
        elif needs_all_positions:
            pooled = at_position(x, self.head_position(lengths)).squeeze(1)  # (B, C)
        else:
            pooled = x.squeeze(1)  # (B, C)

        # head
        if self.pooler is not None:
            pooled = self.pooler(fast.dropout(pooled, config.head_dropout, self.training))
            pooled = HEAD_ACTIVATIONS[config.head](pooled)  # (B, C)
        pooled = fast.dropout(pooled, config.head_dropout, self.training)
        logits = self.head(pooled).float()  # (B, n_class)

        # loss
        if targets is None:
            return logits, None
        adjusted = logits if prior is None else logits + prior
        losses = F.cross_entropy(
            adjusted, targets, class_weight, label_smoothing=label_smoothing, reduction='none'
        )  # (B,)
        if lm_weight > 0:
            losses = losses + lm_weight * self.lm_losses(x, idx, lengths)
        return logits, losses

    def embed(self, idx, lengths):
        """
        idx (B, T), lengths (B,) -> the input of the first block (B, T, C), and which tokens are
        real (B, T): neither padding nor hidden by token dropout.
        """
        config = self.config
        T = idx.size(1)
        assert T <= config.block_size, f'{T} tokens, but block_size is {config.block_size}'
        positions = torch.arange(T, device=idx.device)  # (T,)
        is_real = positions < lengths[:, None]  # (B, T)

        x = self.wte(idx)  # (B, T, embedding_size), which is C but in ELECTRA
        if self.training and config.token_dropout > 0:
            # A hidden token loses its word, and masks and means leave it out. Where a causal model
            # computes all positions there is no mask, and its empty place is seen.
            is_real = self.hide_tokens(is_real, positions, lengths)
            x = x * is_real[..., None]
        x = x + self.wpe(positions + config.pos_offset)
        if self.wse is not None:
            x = x + self.segment(idx)
        if not config.pre_norm:
            x = self.ln(x)
        x = fast.dropout(x, config.dropout, self.training)
        if self.embed_proj is not None:
            x = self.embed_proj(x)  # (B, T, C)
        return x, is_real

    def segment(self, idx):
        """
        The segment embedding of each token: (C,) if all texts are single, (B, T, C) if idx (B, T)
        may hold pairs: [CLS] a [SEP] is segment 0, and b [SEP] behind it is segment 1.
        """
        pair_sep = self.config.pair_sep
        if pair_sep < 0 or self.config.n_type < 2:
            return self.wse.weight[0]
        is_sep = (idx == pair_sep).int()
        n_seps_before = is_sep.cumsum(1) - is_sep  # (B, T), without the token itself
        is_second = n_seps_before > 0
        return torch.where(is_second[..., None], self.wse.weight[1], self.wse.weight[0])

    def distance_mask(self, key_mask):
        """
        MPNet's mask (B, nh, T, T), which is added to the scores: a number for each head and bucket
        of distance, and -inf at the keys that do not count, where key_mask (B, 1, 1, T) is False.
        """
        buckets = distance_buckets(key_mask.size(-1), self.config.n_bucket, key_mask.device)
        bias = self.rel_bias(buckets).permute(2, 0, 1)  # (nh, T, T)
        return bias.masked_fill(~key_mask, float('-inf'))

    def head_position(self, lengths):
        """The position (B,) that the head reads."""
        if self.config.pool == 'first':
            return torch.zeros_like(lengths)
        return lengths - 1

    def hide_tokens(self, is_real, positions, lengths):
        """Token dropout: is_real (B, T) without a random share of the tokens."""
        # What the head reads is spared; with pool='mean' the first token, for there is no mean of
        # nothing.
        spared = lengths[:, None] - 1 if self.config.pool == 'last' else 0
        is_kept = torch.rand(is_real.shape, device=is_real.device) >= self.config.token_dropout
        return is_real & (is_kept | (positions == spared))

    def lm_losses(self, x, idx, lengths):
        """
        The mean next-token cross-entropy of each text (B,), through the tied embedding. Tokens
        that token dropout hides are predicted like all others.
        """
        T = idx.size(1)
        has_next = torch.arange(T - 1, device=idx.device) < lengths[:, None] - 1  # (B, T-1)
        logits = F.linear(x[:, :-1][has_next], self.wte.weight).float()  # (real tokens, vocab_size)
        losses = F.cross_entropy(logits, idx[:, 1:][has_next], reduction='none')  # (real tokens,)
        # back to (B, T-1), to average over each text
        per_token = torch.zeros(has_next.shape, device=x.device).masked_scatter(has_next, losses)
        n_predicted = (lengths - 1).clamp(min=1)
        return per_token.sum(1) / n_predicted

    # -------------------------------------------------------------------------
    # weights

    @classmethod
    def from_pretrained(cls, name, n_class, labels=None, **settings):
        """
        A model with the weights of a checkpoint in Hugging Face's layout.

        name is a folder, a hub name, or a short one such as 'gpt2'; see hub.find.
        settings are fields of Config that a user may set against the checkpoint's: block_size,
        causal, dropout, head, head_dropout, pair_sep, pool, token_dropout; None keeps the
        checkpoint's.
        labels are ours: a head that was trained for them is put in their order.
        model.loaded tells what was taken, what starts fresh and what is not used.
        ValueError if any tensor on either side is not accounted for.
        """
        folder = hub.find(name)
        fields = pretrained.model_settings(folder, settings)
        model = cls(Config(n_class=n_class, **fields))
        shapes = {key: tuple(p.shape) for key, p in model.named_parameters()}
        state, loaded = pretrained.load_weights(folder, shapes, labels, settings)
        model.load_state_dict(state, strict=False)  # load_weights has named what starts fresh
        model.loaded = loaded
        return model

    def num_params(self, embeddings=True):
        """
        The number of parameters. Without the embedding tables they are those that cost a matrix
        product for each token.
        """
        n_params = sum(p.numel() for p in self.parameters())
        if not embeddings:
            for table in (self.wte, self.wpe, self.wse, self.rel_bias):
                if table is not None:
                    n_params -= table.weight.numel()
        return n_params

    def flops_per_token(self, T):
        """
        FLOPs of one token, forward and backward, in a text of T tokens: 6 for each weight, and
        12 T n_embd in each layer for attention (PaLM, appendix B, https://arxiv.org/abs/2204.02311).
        An upper estimate: where the head reads one position, the last block computes only that.
        """
        attention = 12 * self.config.n_layer * self.config.n_embd * T
        return 6 * self.num_params(embeddings=False) + attention

    # -------------------------------------------------------------------------
    # optimization

    def freeze(self, n_layer):
        """
        The embeddings and the first n_layer blocks stay as they are, all else learns, also a norm
        at the exit. With 0 everything learns. ValueError if there are fewer blocks.
        """
        if n_layer > len(self.h):
            limit = f'the model has {len(self.h)} layers'
            raise ValueError(f'freeze={n_layer}, but {limit}; set it to fewer')
        self.requires_grad_(True)
        if n_layer == 0:
            return
        frozen = [self.wte, self.wpe]
        for module in (self.wse, self.embed_proj, self.rel_bias):
            if module is not None:
                frozen.append(module)
        if not self.config.pre_norm:
            frozen.append(self.ln)  # post-norm models normalise the embedding with it
        frozen += self.h[:n_layer]
        for module in frozen:
            module.requires_grad_(False)

    def configure_optimizer(self, weight_decay, learning_rate, betas, layer_decay=1.0, head_lr=0.0):
        """
        AdamW with weight decay on matrices but not on biases and norms.

        Each parameter group carries lr_scale, the factor on its learning rate, for the training
        loop: layer_decay to the power of the layers above (the discriminative rates of ULMFiT,
        https://arxiv.org/abs/1801.06146). With head_lr the head and its hidden layer learn at that
        rate instead.
        """
        top = len(self.h) + 1
        groups = {}
        for name, p in self.named_parameters():
            if not p.requires_grad:
                continue

            # depth: 0 for the embeddings, 1 for the first block, ..., n_layer + 1 for the head
            in_head = name.startswith(('head.', 'pooler.'))
            is_exit_norm = name.startswith('ln.') and self.config.pre_norm
            if name.startswith('h.'):
                depth = int(name.split('.')[1]) + 1
            elif in_head or is_exit_norm:
                depth = top
            else:
                depth = 0

            lr_scale = layer_decay ** (top - depth)
            if in_head and head_lr > 0:
                lr_scale = head_lr / learning_rate
            is_matrix = p.dim() >= 2
            decay = weight_decay if is_matrix else 0.0

            new_group = {'params': [], 'weight_decay': decay, 'lr_scale': lr_scale}
            group = groups.setdefault((decay, lr_scale), new_group)
            group['params'].append(p)
        is_cuda = self.wte.weight.is_cuda
        return torch.optim.AdamW(
            list(groups.values()), lr=learning_rate, betas=betas, fused=True, capturable=is_cuda
        )
