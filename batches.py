"""
How texts get through a net fast: in batches of like length; on a GPU a step is recorded once for each shape of batch and
replayed; on a CPU each thread predicts a batch of its own, and freed memory is kept for the next step.
"""

import copy
import ctypes
import platform
from concurrent.futures import ThreadPoolExecutor

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
    A list of id arrays -> idx (B, T) int64, zeros on the right, and lengths (B,) int64. T is the longest text's length; given
    most, that rounded up to few sizes, but to no more than most: multiples of 8 to 64, of 16 to 128, of 32 to 256, and so on.
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


def predict(model, texts, batch_size=64, dtype=torch.float32, rows=None):
    """
    texts: a sequence of id arrays (a prepare.Split is one), rows: which of them -> logits (n, n_class) float32, in that order.
    Sorted by length, so that a batch pads next to nothing; the logits do not depend on who shares the batch.
    On a CPU each thread has batches of its own and waits for no other after each operation: with two, 1.2 times as fast.
    """
    device, was_training, threads = model.wte.weight.device, model.training, torch.get_num_threads()
    if device.type == 'cpu':
        keep_memory()  # also for the training that train.py begins after a first prediction
    model.eval()
    net = model if dtype == torch.float32 else copy.deepcopy(model)
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(dtype)  # once, not for each batch; autocast sees to all else

    @torch.no_grad()
    def run(some):
        idx, n = pad([texts[i] for i in some])
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return net(idx.to(device), n.to(device))[0]

    rows = np.arange(len(texts)) if rows is None else rows
    lengths = texts.lengths if hasattr(texts, 'lengths') else np.array([len(ids) for ids in texts], dtype=np.int64)
    order = np.argsort(-lengths[rows], kind='stable')  # the longest first: then all threads end at about the same time
    batches = [rows[order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    at_once = max(1, min(threads, len(batches), 8)) if device.type == 'cpu' else 1
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)) as pool:
            logits = list((pool.map if at_once > 1 else map)(run, batches))
    finally:  # also after a Ctrl-C in a notebook
        torch.set_num_threads(threads)  # theirs has become ours, too
        model.train(was_training)
    out = np.zeros((len(rows), model.config.n_class), dtype=np.float32)
    out[order] = torch.cat(logits).cpu().numpy() if logits else 0  # at the end: a GPU need not be waited for at each batch
    return out


def keep_memory(keep=True):
    """
    What a step has freed stays at hand for the next, of any thread. glibc gives large blocks back to the kernel, which clears
    them anew page by page: 2,000 to 7,000 pages in a step of MiniLM, 50,000 to 300,000 in one of GPT-2's shape, 2 to 17 % of
    the time, and a fifth in predict, where threads have heaps of their own. The peak stays. Not before tokenizing: its threads
    are a sixth slower with one heap. keep=False: about what glibc comes to by itself, but for that heap, if there were threads.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if platform.libc_ver()[0] == 'glibc':
        trim_threshold, mmap_threshold, mmap_max, arena_max = -1, -3, -4, -8
        libc = ctypes.CDLL(None)
        libc.mallopt(arena_max, 1 if keep else 0)
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(mmap_max, 0 if keep else 65536)
        libc.mallopt(trim_threshold, -1 if keep else 2**26)
