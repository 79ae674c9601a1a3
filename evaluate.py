"""
How good is a classifier, and how sure can one be of that? Pure functions over numpy arrays first, then `predict` and
`open_run`, which train.py and sample_classify.py share: what is judged, trained and used is the same code.
"""

import os
import platform
import subprocess

import numpy as np
import torch

from model import Config, Transformer
from tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
# metrics


def softmax(logits):
    """(n, n_class) logits -> (n, n_class) probabilities, float64."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf), dtype=np.float64)
    return e / e.sum(axis=1, keepdims=True)


def confusion(targets, predictions, n_class):
    """
    (n_class, n_class) counts, row = truth, column = prediction.
    Example: truth [0, 0, 1, 2], predicted [0, 1, 1, 1] -> [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    """
    pairs = np.asarray(targets, dtype=np.int64) * n_class + np.asarray(predictions, dtype=np.int64)
    return np.bincount(pairs, minlength=n_class * n_class).reshape(n_class, n_class)


def precision_recall_f1(table):
    """
    confusion table (K, K) -> three arrays (K,). What would be 0/0 is 0, as in scikit-learn's zero_division=0.
    Example: [[1, 1, 0], [0, 1, 0], [0, 1, 0]] -> precision [1, 1/3, 0], recall [1/2, 1, 0], F1 [2/3, 1/2, 0]
    """
    hits, predicted, true = np.diag(table).astype(float), table.sum(axis=0), table.sum(axis=1)
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(true, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + true, 1)


def wilson(hits, n, z=1.959964):
    """
    The 95 % interval of a share, honest for few rows too (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).
    Example: wilson(21, 30) -> (0.521, 0.833): on 30 rows, 70 % says little
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, z * z
    middle, half = p + z2 / (2 * n), z * (p * (1 - p) / n + z2 / (4 * n * n)) ** 0.5
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))


def metrics(logits, targets, labels):
    """
    logits (n, K), targets (n,), K label names -> a dict of plain numbers, ready for JSON. macro_f1 is the mean over the
    labels that occur as truth or prediction; nll is the mean negative log likelihood in nats, without class weights.
    """
    n, K = logits.shape
    predictions, targets = logits.argmax(axis=1), np.asarray(targets, dtype=np.int64)
    table = confusion(targets, predictions, K)
    precision, recall, f1 = precision_recall_f1(table)
    present = table.sum(axis=0) + table.sum(axis=1) > 0
    hits = int(np.trace(table))
    p_true = softmax(logits)[np.arange(n), targets]
    columns = zip(labels, precision, recall, f1, table.sum(axis=1), strict=True)
    return {
        'n': n,
        'accuracy': hits / max(n, 1),
        'accuracy_ci': [round(x, 4) for x in wilson(hits, n)],
        'macro_f1': float(f1[present].mean()) if n else 0.0,
        'nll': float(-np.log(np.maximum(p_true, 1e-300)).mean()) if n else 0.0,
        'per_class': {
            label: {'precision': float(p), 'recall': float(r), 'f1': float(f), 'support': int(s)}
            for label, p, r, f, s in columns
        },
        'confusion': table.tolist(),
    }


def table(m, labels):
    """The metrics of one split as lines for people: per-class scores beside the confusion matrix."""
    w = max(9, *(len(label) for label in labels))
    cell = max(6, min(w, 12)) + 2
    low, high = m['accuracy_ci']
    lines = [
        f'accuracy {m["accuracy"]:.3f} [{low:.3f}, {high:.3f}]   macro-F1 {m["macro_f1"]:.3f}   NLL {m["nll"]:.3f}   n {m["n"]}'
    ]
    names = ''.join(f'{label[: cell - 2]:>{cell}}' for label in labels)
    lines.append(f'{"":{w}}  precision  recall     F1  support   predicted:{names}')
    for label, row in zip(labels, m['confusion'], strict=True):
        c = m['per_class'][label]
        scores = f'{label:{w}}  {c["precision"]:9.3f}  {c["recall"]:6.3f}  {c["f1"]:5.3f}  {c["support"]:7,}'
        lines.append(f'{scores}   {"":10}' + ''.join(f'{x:{cell},}' for x in row))
    return '\n'.join(lines)


# -----------------------------------------------------------------------------
# texts in, logits out


def choose_machine(device='auto', dtype='float32'):
    """
    Names -> device, torch dtype. 'auto' is the best there is; bfloat16 only with instructions for it: emulated, it crawls.
    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    if dtype == 'auto':
        can = torch.cpu.get_capabilities() if device == 'cpu' else {}
        cuda = device.startswith('cuda') and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = 'bfloat16' if cuda or can.get('avx512_bf16') or can.get('amx_bf16') else 'float32'
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device={device} cannot be used here: {str(error).splitlines()[0]}; try --device=cpu') from None
    return device, getattr(torch, dtype)


def pad(texts):
    """A list of id arrays -> idx (B, T) int64, zeros on the right, and lengths (B,) int64."""
    lengths = torch.tensor([len(ids) for ids in texts])
    idx = np.zeros((len(texts), int(lengths.max())), dtype=np.int64)
    for row, ids in zip(idx, texts, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(idx), lengths


@torch.no_grad()
def predict(model, texts, batch_size=64, dtype=torch.float32, rows=None):
    """
    texts: a sequence of id arrays (a prepare.Split is one), rows: which of them -> logits (n, n_class) float32, in that order.
    Sorted by length, so that a batch pads next to nothing; the logits do not depend on who shares the batch.
    """
    device, was_training = model.wte.weight.device, model.training
    model.eval()
    rows = np.arange(len(texts)) if rows is None else rows
    lengths = texts.lengths if hasattr(texts, 'lengths') else np.array([len(ids) for ids in texts], dtype=np.int64)
    order = np.argsort(lengths[rows], kind='stable')
    out = np.zeros((len(rows), model.config.n_class), dtype=np.float32)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            idx, n = pad([texts[i] for i in rows[some]])
            out[some] = model(idx.to(device), n.to(device))[0].cpu().numpy()
    model.train(was_training)
    return out


def save_run(path, checkpoint):
    """Whole or not at all: a temporary name, flushed to the disk, then renamed. Adds what made it: versions, git commit."""
    versions = {'python': platform.python_version(), 'torch': str(torch.__version__), 'numpy': np.__version__}
    git = subprocess.run(
        ['git', 'rev-parse', 'HEAD'], cwd=os.path.dirname(os.path.abspath(__file__)), capture_output=True, text=True
    )
    with open(path + '.tmp', 'wb') as f:
        torch.save(checkpoint | {'versions': versions, 'git': git.stdout.strip()}, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + '.tmp', path)


def open_run(path, device='cpu'):
    """A checkpoint (best.pt, or a folder that holds one) -> model in eval mode, tokenizer, checkpoint dict."""
    path = os.path.join(path, 'best.pt') if os.path.isdir(path) else path
    checkpoint = torch.load(path, map_location=device, weights_only=True)  # tensors and plain values: loading runs no code
    model = Transformer(Config(**checkpoint['config']))
    model.load_state_dict(checkpoint['model'])
    return model.to(device).eval(), load_tokenizer(checkpoint['tokenizer']), checkpoint


def resume_run(path, config, defaults, free):
    """
    Opens a checkpoint to go on from: config takes over its settings, but keeps what was set anew where that is free to
    change. ValueError where there is none, or config wants something else of what is not free.
    """
    if not os.path.exists(path):
        raise ValueError(f'there is no {path}; leave out --init_from=resume and --eval_only to train from the start')
    try:
        last = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as e:
        raise ValueError(f'{path} cannot be read ({type(e).__name__}); remove it and train again') from None
    for key, ours in last['settings'].items():
        fell_back = key == 'dataset' and ours == config['fallback_dataset']
        if key not in free and config[key] not in (ours, defaults[key]) and not fell_back:
            raise ValueError(f'{path} has {key}={ours}, not {config[key]}; leave {key} out or choose another out_dir')
        if key not in ('init_from', 'eval_only') and (key not in free or config[key] == defaults[key]):
            config[key] = ours
    return last
