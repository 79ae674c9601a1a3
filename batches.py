"""
What a step is fed with, and how it runs as a whole: texts of like length into batches, and on a GPU the step recorded for
each shape of them.
"""

import numpy as np
import torch


def epoch_batches(split, size, seed, epoch, even=False):
    """
    The rows (up to size,) of every step of an epoch: a permutation that (seed, epoch) decide, in buckets of up to 64 steps
    sorted by length, so that a step pads little and each epoch mixes anew. even: drawn so that labels are equally frequent.
    """
    rng = np.random.default_rng((seed, epoch))
    share = 1.0 / np.bincount(split.labels)[split.labels] if even else None
    order = rng.choice(len(split), len(split), p=share / share.sum()) if even else rng.permutation(len(split))
    bucket = size * min(64, max(1, len(order) // (8 * size)))  # never fewer than 8, or each epoch would be sorted as a whole
    for start in range(0, len(order), bucket):
        rows = order[start : start + bucket]
        rows = rows[np.argsort(split.off[rows + 1] - split.off[rows], kind='stable')]
        steps = [rows[i : i + size] for i in range(0, len(rows), size)]
        for i in rng.permutation(len(steps)):
            yield steps[i]


def pad(texts, most=0):
    """
    A list of id arrays -> idx (B, T) int64, zeros on the right, and lengths (B,) int64. T is the longest text's length, or,
    with most, rounded up by 8, from 64 on by a quarter of the power of two below, and at most that.
    """
    lengths = torch.tensor([len(ids) for ids in texts])
    T = int(lengths.max())
    T = min(T + -T % max(8, 2 ** (T.bit_length() - 3)), most) if most else T
    idx = np.zeros((len(texts), T), dtype=np.int64)
    for row, ids in zip(idx, texts, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(idx), lengths


def get_batch(split, rows, device, few=False):
    """rows (B,) of a split -> idx (B, T) right-padded, lengths (B,), targets (B,), on the device; few: T is one of few sizes"""
    targets = torch.from_numpy(split.labels[rows].astype(np.int64))
    batch = *pad([split[i] for i in rows], split.block_size if few else 0), targets
    return [x.to(device, non_blocking=True) for x in batch]


class Recorded:
    """
    A step as CUDA graphs, one for each shape of batch: Python starts the 930 kernels of BERT-base's step one by one in 32 to 50
    ms, an H100 computes them in 5. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    step: a function of tensors on the GPU that looks at none of their values and returns a tensor, which is good until the next
    call. The first batch of a shape, and of a key, is stepped on as ever, which warms up; then the step is recorded.
    """

    def __init__(self, step):
        self.step, self.found, self.pool = step, {}, torch.cuda.graph_pool_handle()

    def __call__(self, *batch, key=None):
        key = key, *(x.shape for x in batch)
        if key not in self.found:
            out = self.step(*batch)
            graph, mine = torch.cuda.CUDAGraph(), [x.clone() for x in batch]
            with torch.cuda.graph(graph, pool=self.pool):  # all in the same memory: nothing of a step outlives it
                self.found[key] = graph, mine, self.step(*mine)
            return out
        graph, mine, out = self.found[key]
        for x, new in zip(mine, batch, strict=True):
            x.copy_(new)
        graph.replay()
        return out
