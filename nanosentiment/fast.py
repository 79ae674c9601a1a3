"""
The speed tricks of this project, all in one place: attention and dropout on a CPU, threaded
prediction, memory that stays with the process, training steps recorded as CUDA graphs.

Each can be replaced by the plain form that its docstring names; the results stay the same, up to
rounding and the random numbers of dropout.
The gains were measured on the processors named beside them; bench.py measures the whole.
"""

import copy
import ctypes
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F

from nanosentiment.memmaps import pad_rows

# -----------------------------------------------------------------------------
# attention on a CPU

CAUSAL_BLOCK = 64  # queries at a time in causal attention


def cpu_attention(q, k, v, mask, is_causal, dropout_p):
    """
    softmax(q k^T / sqrt(head size)) v on a CPU; the plain form is F.scaled_dot_product_attention.

    q (B, n_head, Tq, hs), k and v (B, n_head, T, hs); the mask is None, or broadcastable to
    (B, n_head, Tq, T) and True where a key counts, or of numbers that are added to the scores.
    Returns (B, n_head, Tq, hs).

    PyTorch's CPU kernel has no dropout. In bfloat16, when there is a backward pass, it needs 5 to 8
    times as long as two matrix products and a softmax (20 ms against 2.6 at 16 tokens, 50 against
    10 at 64; two Zen 4 cores), and without one it is faster from 64 tokens on. In float32 it is
    always faster.
    """
    assert mask is None or not is_causal, 'a causal model needs no mask for padding on the right'
    T = k.size(2)
    is_bfloat16 = q.dtype == torch.bfloat16
    kernel_is_faster = not is_bfloat16 or (T >= 64 and not q.requires_grad)
    if dropout_p == 0 and kernel_is_faster:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
    if is_causal and q.size(2) > CAUSAL_BLOCK:
        return causal_attention_in_blocks(q, k, v, dropout_p)
    return explicit_attention(q, k, v, mask, is_causal, dropout_p)


def causal_attention_in_blocks(q, k, v, dropout_p):
    """
    Causal attention for a block of queries at a time, without the keys that come after the block.
    At 256 tokens this takes 0.55 of the time.
    """
    query_blocks = q.split(CAUSAL_BLOCK, dim=2)
    key_blocks = k.split(CAUSAL_BLOCK, dim=2)
    value_blocks = v.split(CAUSAL_BLOCK, dim=2)
    outputs = []
    for i, queries in enumerate(query_blocks):
        # not k[:n], because the gradient of a slice is as large as all of k, once for each block
        keys = torch.cat(key_blocks[: i + 1], dim=2)
        values = torch.cat(value_blocks[: i + 1], dim=2)
        outputs.append(explicit_attention(queries, keys, values, None, True, dropout_p))
    return torch.cat(outputs, dim=2)


def explicit_attention(q, k, v, mask, is_causal, dropout_p):
    """Attention as two matrix products and a softmax. Shapes as in cpu_attention."""
    Tq, T = q.size(2), k.size(2)
    if mask is None:
        mask = torch.ones(Tq, T, dtype=torch.bool)
        if is_causal:
            mask = mask.tril(T - Tq)

    # The softmax kernel works on 64 bytes at a time and on the rest of a row number by number.
    # So rows are filled up with keys that do not count. F.pad always copies, hence the `if`.
    n_fill = -T % (64 // q.element_size())
    if n_fill:
        k = F.pad(k, (0, 0, 0, n_fill))
        v = F.pad(v, (0, 0, 0, n_fill))
        no_key = False if mask.dtype == torch.bool else float('-inf')
        mask = F.pad(mask, (0, n_fill), value=no_key)

    if mask.dtype == torch.bool:
        bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, float('-inf'))
    else:
        bias = mask.to(q.dtype)
    scale = q.size(-1) ** -0.5
    scores = torch.add(bias, q @ k.transpose(-2, -1), alpha=scale)  # (B, n_head, Tq, T + n_fill)
    weights = dropout(F.softmax(scores, dim=-1), dropout_p)
    return weights @ v  # (B, n_head, Tq, hs)


# -----------------------------------------------------------------------------
# dropout


def dropout(x, p, training=True):
    """
    F.dropout, which is the plain form. On a CPU it draws 16 random bits for an element instead
    of 32, four elements at once. Training MiniLM in bfloat16 is 1.10, 1.12 and 0.99 times as fast
    with it (three pairs of runs of bench.py, two Zen 4 cores).
    """
    is_active = training and 0 < p < 1
    if x.device.type != 'cpu' or not is_active:
        return F.dropout(x, p, training)
    n_draws = -(-x.numel() // 4)  # rounded up
    draws = torch.empty(n_draws, dtype=torch.int64).random_(-(2**63), None)
    numbers = draws.view(torch.int16)[: x.numel()].view(x.shape)  # -2**15 to 2**15 - 1
    # an element is dropped if its number is in the lowest share p; p near 1 must not overflow
    threshold = min(round(p * 2**16), 2**16 - 1) - 2**15
    keep = (numbers >= threshold).to(x.dtype).mul_(1 / (1 - p))
    return x * keep


# -----------------------------------------------------------------------------
# prediction


def predict(model, texts, batch_size=64, dtype=torch.float32, rows=None):
    """
    The logits of many texts, (n, n_class) float32, in the order of the texts.

    texts is a sequence of token id arrays (a memmaps.Split is one); rows selects some of them.
    Texts are sorted by length, so that a batch needs almost no padding; the logits do not depend
    on which texts share a batch. On a CPU each thread takes batches of its own instead of all
    threads sharing each operation: 1.2 times as fast with two threads.
    The plain form is model(idx, lengths) under torch.no_grad(), batch by batch.
    """
    device = model.wte.weight.device
    if rows is None:
        rows = np.arange(len(texts))
    # the longest texts come first, so that all threads end at about the same time
    order = np.argsort(-text_lengths(texts)[rows], kind='stable')  # (n,) places in rows
    sorted_rows = rows[order]
    batches = [sorted_rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

    was_training = model.training
    try:
        model.eval()
        net = in_dtype(model, dtype)

        @torch.no_grad()
        def predict_batch(batch):
            idx, lengths = pad_rows([texts[i] for i in batch])
            idx = torch.from_numpy(idx).to(device)
            lengths = torch.from_numpy(lengths).to(device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits, _ = net(idx, lengths)
            return logits

        if device.type == 'cpu':
            logits = map_in_threads(predict_batch, batches)
        else:
            logits = [predict_batch(batch) for batch in batches]
    finally:  # also after a Ctrl-C in a notebook
        model.train(was_training)

    # one copy at the end: a GPU need not be waited for after each batch
    predictions = np.zeros((len(rows), model.config.n_class), dtype=np.float32)
    if logits:
        predictions[order] = torch.cat(logits).cpu().numpy()
    return predictions


def text_lengths(texts):
    """The number of tokens of each text, (n,) int64."""
    if hasattr(texts, 'lengths'):  # a Split knows them without reading a token
        return texts.lengths
    return np.array([len(ids) for ids in texts], dtype=np.int64)


def in_dtype(model, dtype):
    """
    The model if its linear layers compute in dtype, or else a copy in which they do. So weights are
    cast once instead of by autocast in each batch.
    """
    if dtype in (torch.float32, model.head.weight.dtype):
        return model
    net = copy.deepcopy(model)
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(dtype)
    return net


def map_in_threads(function, batches):
    """[function(batch) for batch in batches], each thread computing whole batches by itself."""
    n_threads = torch.get_num_threads()
    # at most 8 workers, with several threads each on larger machines; more were not measured
    n_workers = max(1, min(n_threads, len(batches), 8))
    if n_workers == 1:
        return [function(batch) for batch in batches]
    try:
        with ThreadPoolExecutor(
            n_workers,
            initializer=torch.set_num_threads,
            initargs=(n_threads // n_workers,),
        ) as pool:
            return list(pool.map(function, batches))
    finally:
        # set_num_threads counts for the thread that calls it, but get_num_threads would go on
        # to tell the whole process the number of the workers
        torch.set_num_threads(n_threads)


# -----------------------------------------------------------------------------
# memory


def keep_memory(keep=True):
    """
    Lets glibc keep freed memory for the next step instead of returning it to the kernel.

    The kernel clears returned pages one by one when they come back: 2,000 to 7,000 pages in a step
    of MiniLM and 50,000 to 300,000 in a step of GPT-2's shape. Keeping them saves 2 to 17 % of a
    training step and a fifth of predict's time, where each thread would have a heap of its own.
    The peak memory is the same. Call it after tokenizing, whose threads are a sixth slower with
    one heap. keep=False goes back to about what glibc does by itself.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] != 'glibc':
        return
    # the numbers of these parameters in glibc's malloc.h
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
    libc = ctypes.CDLL(None)
    if keep:
        libc.mallopt(M_ARENA_MAX, 1)  # one heap for all threads
        libc.mallopt(M_MMAP_MAX, 0)  # no block is mapped by itself, and unmapped when it is freed
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # the heap never shrinks
    else:
        libc.mallopt(M_ARENA_MAX, 0)
        libc.mallopt(M_MMAP_MAX, 65536)
        # glibc raises its M_MMAP_THRESHOLD up to 32 MiB by itself, and trims at twice that
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**26)


# -----------------------------------------------------------------------------
# CUDA graphs


class GraphStep:
    """
    A training step recorded as CUDA graphs, one for each shape of batch, and replayed.

    Python starts the 930 kernels of a BERT-base step one by one in 32 to 50 ms; an H100 computes
    them in 5 ms. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

    step is a function of tensors on the GPU that looks at none of their values and returns a
    tensor, which is valid until the next call. variant tells apart steps of one shape that do
    other work, for instance train the head alone. The first batch of a shape is computed in the
    plain way, which warms up; then the step is recorded, which computes nothing. A replayed dropout
    draws anew: call torch.manual_seed before a step to fix it.
    The plain form is calling step itself.
    """

    def __init__(self, step):
        self.step = step
        self.graphs = {}  # (variant, shapes) -> graph, its input tensors, its output tensor
        self.memory = torch.cuda.graph_pool_handle()

    def __call__(self, *batch, variant=None):
        key = (variant, *(tensor.shape for tensor in batch))
        if key not in self.graphs:
            output = self.step(*batch)
            self.graphs[key] = self.record(batch)
            return output
        graph, inputs, output = self.graphs[key]
        for tensor, new in zip(inputs, batch, strict=True):
            tensor.copy_(new)
        graph.replay()
        return output

    def record(self, batch):
        graph = torch.cuda.CUDAGraph()
        inputs = [tensor.clone() for tensor in batch]
        # all graphs share their memory: nothing of a step is needed after it
        with torch.cuda.graph(graph, pool=self.memory):
            output = self.step(*inputs)
        return graph, inputs, output
