"""
Trains a text classifier, judges it on the test split, and leaves out_dir/best.pt, which is all that
sample_classify.py needs.

From scratch, on customer-service conversations:
$ python train.py config/train_sentiment_scratch.py

From GPT-2, on your own table:
$ python train.py config/finetune_gpt2.py --block_size=256 \
    --dataset=mine.csv --text_column=body --label_column=mood

From scratch in two stages: first a language model of texts without labels, then a classifier:
$ python train.py config/pretrain_lm.py --dataset=texts.txt --out_dir=out/lm
$ python train.py --init_from=out/lm --out_dir=out/mine \
    --dataset=mine.csv --text_column=body --label_column=mood

With two processes (or two GPUs) on one machine, each of which computes one of the two passes of a
step, so that a step has twice as many texts:
$ torchrun --standalone --nproc_per_node=2 train.py config/train_sentiment_scratch.py \
    --gradient_accumulation_steps=2
"""

import itertools
import math
import os
import shlex
import signal
import sys
import time
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import prepare
from configurator import configure, discard_stdout, print_error, printable, stop
from model import CHOICES as MODEL_CHOICES
from model import Config, Transformer
from nanosentiment.checkpoint import (
    RESUME,
    Classifier,
    build_model,
    carried_tokenizer,
    check_same_data,
    check_start,
    cleaning_notes,
    git_commit,
    is_run,
    model_of_run,
    read_checkpoint,
    resume_checkpoint,
    save_checkpoint,
)
from nanosentiment.checks import check_optimizer
from nanosentiment.datasets import DATA_DIR, find_raw
from nanosentiment.device import DTYPES, choose_device, describe_machine
from nanosentiment.download import Unreachable
from nanosentiment.evaluation import evaluate, print_evaluation, split_examples, wandb_plots
from nanosentiment.fast import GraphStep, keep_memory, predict
from nanosentiment.files import (
    cannot_be_written,
    lock_folder,
    read_json_lines,
    to_json,
    write_sealed_json,
    write_whole,
)
from nanosentiment.hub import find
from nanosentiment.memmaps import Blocks, Split, epoch_batches, pad_rows, read_meta
from nanosentiment.metrics import METRICS, fit_temperature, format_metric, score
from nanosentiment.pretrained import check_tokens, max_positions
from nanosentiment.repeats import parent_has_ended, run_repeats, stop_signals
from nanosentiment.tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
# i/o
out_dir = 'out/run'  # where best.pt, last.pt, metrics.jsonl and the evaluation go
eval_interval = 0  # steps between evaluations of the whole validation split; 0: once an epoch
log_interval = 10  # steps between two lines of out_dir/metrics.jsonl
# 'resume' goes on from out_dir/last.pt
init_from = 'scratch'  # or gpt2, minilm, mpnet, org/model, a folder; out/run: train on from a run
# data; the data set, columns, cleaning, splits, tokenizer and block_size are settings of prepare.py
fallback_config = ''  # used instead, with a warning, where the data set cannot be downloaded
# batches
batch_size = 16  # texts of one forward and backward pass
gradient_accumulation_steps = 1  # such passes in one step, over all processes together
# model; a checkpoint brings its own sizes, and is causal or not
n_layer = 4
n_head = 4
n_embd = 192
causal = True
pool = 'auto'  # 'last', 'first' or 'mean'; auto: the checkpoint's own, from scratch 'last'
dropout = 0.2  # few texts need much
head_dropout = 0.0
token_dropout = 0.0  # of whole tokens; 0.4 helps from scratch where texts repeat each other
# fine-tuning
freeze = 0  # the embeddings and this many layers stay as they came; 0: nothing is frozen
layer_decay = 1.0  # learning rate of a layer over that of the one above; 0.9 spares the lower ones
head_lr = 0.0  # learning rate of the head, which starts fresh; 0.0: learning_rate
head_epochs = 0  # epochs that train the head alone first: https://arxiv.org/abs/2202.10054
# objective
class_weight = 'none'  # others for rare labels: see loss_weights
label_smoothing = 0.0
lm_weight = 0.0  # weight of next-token prediction, which teaches more than a few hundred labels
# optimizer
learning_rate = 1e-3  # from scratch; 1e-4 for a small pretrained model, 2e-5 for a base-size one
max_epochs = 10  # times that every training text is read
max_iters = 0  # steps; the run ends with whichever of the two comes first; 0: no such bound
min_epochs = 0  # at least so many, whatever max_iters says
weight_decay = 0.1
beta1 = 0.9
beta2 = 0.99
grad_clip = 1.0  # 0.0: no clipping
# schedule
decay_lr = 'cosine'  # or 'linear', or 'none'
warmup_iters = 50
lr_decay_iters = 0  # the step at which the rate reaches min_lr; 0: the end of the run
min_lr = 0.0
# stopping
metric = 'auto'  # chooses the best checkpoint; auto: val_macro_f1 if a label is rare, else val_loss
patience = 0  # evaluations without improvement before the run stops; 0: never stop early
# system
backend = 'auto'  # of torchrun: nccl with CUDA, else gloo
device = 'auto'  # or cpu, cuda, cuda:1, mps; auto: a GPU if there is one
dtype = 'auto'  # auto: bfloat16 where the hardware multiplies it, else float32
compile = False  # torch.compile: 0.75 of a step's time on an H100, after a minute; slower on a CPU
graphs = 'auto'  # CUDA graphs: 'on', 'off', or auto, where they can be used; see fast.GraphStep
# wandb
wandb_log = False
wandb_project = 'nanosentiment'
wandb_run_name = ''  # '' is the name of out_dir
wandb_texts = False  # True also uploads up to 1,000 wrongly classified texts, as they are
# seeds
seed = 1  # of the first weights, dropout and order; split_seed draws the splits
seeds = 0  # 5: five runs with seeds 1 to 5 in out_dir/seed-1, ...; finished ones are not repeated
# -----------------------------------------------------------------------------

# what --help shows first
FIRST = (
    'dataset', 'text_column', 'label_column', 'test_file', 'out_dir', 'init_from', 'tokenizer',
    'block_size', 'batch_size', 'learning_rate', 'max_epochs', 'class_weight', 'seed', 'device',
    'dtype',
)  # fmt: skip

# -----------------------------------------------------------------------------
# data


def get_batch(split, rows, device, few_lengths=False):
    """
    The texts of these rows (B,) -> idx (B, T) padded on the right, lengths (B,), targets (B,).

    T is the longest text's length; with few_lengths it is rounded up, so that few shapes occur,
    each of which becomes a CUDA graph.
    """
    max_length = split.block_size if few_lengths else 0  # 0: not rounded up
    idx, lengths = pad_rows([split[row] for row in rows], max_length)
    targets = split.labels[rows].astype(np.int64)
    return [torch.from_numpy(array).to(device) for array in (idx, lengths, targets)]


def training_steps(split, texts_per_step, first_iter, iters_per_epoch):
    """
    Yields the rows of each step, epoch after epoch without an end, from step first_iter on.

    The order is fixed by (seed, epoch), so that a resumed run draws what it would have drawn.
    """
    first_epoch, n_done = divmod(first_iter, iters_per_epoch)
    for epoch in itertools.count(first_epoch):
        is_balanced = class_weight == 'sampling'
        steps = epoch_batches(split, texts_per_step, seed, epoch, is_balanced)
        yield from itertools.islice(steps, n_done, None)
        n_done = 0


def why_unreachable(config):
    """Why the raw data is not to be had, or '' if it is here or has just been downloaded."""
    try:
        find_raw(config['dataset'], config['data_dir'] or DATA_DIR, config['test_file'])
    except Unreachable as error:
        return str(error)
    except ValueError:
        pass  # prepare() will meet the same mistake, and name it
    return ''


def fall_back_if_unreachable(config, defaults):
    """
    The config if its data can be had. If not, the settings of its fallback_config, and of the flags
    on the command line except those about the data. A box on stderr says so.
    """
    reason = why_unreachable(config)
    if not reason:
        return config
    fallback = config['fallback_config']
    if int(os.getenv('RANK', '0')) == 0:
        print('#' * 100, file=sys.stderr)
        for sentence in reason.split('; '):
            print(f'#  {sentence}', file=sys.stderr)
        print(f'#  GOING ON WITH {fallback} INSTEAD:', file=sys.stderr)
        print(f'#  its figures say nothing about {config["dataset"]}', file=sys.stderr)
        print('#' * 100, file=sys.stderr)
    about_data = {
        'dataset', 'text_column', 'text_pair_column', 'label_column', 'label_names', 'test_file',
        'val_file', 'split_column', 'group_column', 'delimiter', 'encoding', 'header', 'labelled',
    }  # fmt: skip
    flags = [arg for arg in sys.argv[1:] if arg.startswith('--')]
    flags = [arg for arg in flags if arg[2:].partition('=')[0] not in about_data]
    globals().update({name: defaults[name] for name in config if name in globals()})
    return configure(globals(), prepare, argv=[fallback, *flags])


# -----------------------------------------------------------------------------
# objective and schedule


def loss_weights(counts, device):
    """
    The training texts of each label (n_class,) -> class_weight and prior (n_class,) for the loss,
    either of them None where the setting class_weight does not ask for it.

    'balanced' weights a text by 1/n of its label, 'sqrt' by 1/sqrt(n); the weights average 1 over
    the texts, so that the learning rate means the same. 'logit' is a prior of log frequencies
    (logit adjustment). 'sampling' is up to epoch_batches, which then draws labels equally often.
    """
    counts = torch.tensor(counts, dtype=torch.float32).clamp(min=1)
    if class_weight == 'logit':
        prior = (counts / counts.sum()).log()
        return None, prior.to(device)
    if class_weight == 'balanced':
        weight = 1 / counts
    elif class_weight == 'sqrt':
        weight = counts.rsqrt()
    else:
        return None, None
    weight = weight * counts.sum() / (weight * counts).sum()
    return weight.to(device), None


def count_iters(iters_per_epoch):
    """The steps of the whole run: what max_epochs, max_iters and min_epochs allow."""
    n_iters = max_epochs * iters_per_epoch
    if max_iters > 0 and (max_epochs == 0 or max_iters < n_iters):
        n_iters = max_iters
    return max(n_iters, min_epochs * iters_per_epoch)


def get_lr(it, decay_iters):
    """The learning rate of step `it`: linear warm-up, then decay to min_lr at step decay_iters."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / warmup_iters
    progress = min((it - warmup_iters) / max(decay_iters - warmup_iters, 1), 1.0)
    if decay_lr == 'none':
        return learning_rate
    if decay_lr == 'linear':
        return min_lr + (learning_rate - min_lr) * (1 - progress)
    if decay_lr == 'cosine':
        return min_lr + (learning_rate - min_lr) * (0.5 * (1 + math.cos(math.pi * progress)))
    raise ValueError(f'decay_lr={decay_lr} is unknown; choose one of cosine, linear, none')


# -----------------------------------------------------------------------------
# one step


def forward_backward(net, batch, objective, n_texts, autocast, scaler):
    """Adds the gradients of one micro-batch of a step of n_texts -> its share of the loss."""
    idx, lengths, targets = batch
    with autocast:
        _, losses = net(idx, lengths, targets, **objective)
    loss = losses.sum() / n_texts
    scaler.scale(loss).backward()
    return loss.detach()


def clip_and_update(model, optimizer, scaler):
    """Clips the gradients, lets the optimizer take its step -> the norm that the gradients had."""
    scaler.unscale_(optimizer)
    if grad_clip > 0:
        grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    else:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(gradients)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return grad_norm


# -----------------------------------------------------------------------------
# evaluation and logging


def predict_split(model, split, ptdtype, rank, world_size):
    """The logits (n, n_class) and labels (n,) of a split, whose texts the processes share."""
    rows_of_rank = [np.arange(r, len(split), world_size) for r in range(world_size)]
    logits = predict(model, split, 4 * batch_size, ptdtype, rows_of_rank[rank])
    if world_size > 1:
        parts = [None] * world_size
        dist.all_gather_object(parts, logits)
        logits = np.concatenate(parts)
    rows = np.concatenate(rows_of_rank)
    return logits, split.labels[rows].astype(np.int64)


@torch.no_grad()
def lm_loss(model, blocks, device, autocast, rank, world_size):
    """The mean next-token loss of a split's Blocks, which the processes share."""
    model.eval()
    total = torch.zeros((), device=device)
    for start in range(rank * batch_size, len(blocks), world_size * batch_size):
        rows = np.arange(start, min(start + batch_size, len(blocks)))
        with autocast:
            _, losses = model(*get_batch(blocks, rows, device))
        total += losses.sum()
    if world_size > 1:
        dist.all_reduce(total)
    model.train()
    return total.item() / len(blocks)


def selection_score(scores, metric):
    """The scores of an evaluation -> a list that is greater, the better the model is by metric."""
    if metric == 'val_loss':
        return [-scores['nll']]
    if metric == 'val_balanced_loss':
        return [-scores['balanced_nll']]
    # Every one of METRICS is better when it is greater. Few validation texts give few different
    # values; of equal ones the lower loss is better.
    return [scores[metric.removeprefix('val_')], -scores['nll']]


def describe_labels(label_names, counts, n_shown=6):
    """The shares of the most frequent labels, of counts (n_class,), and how many more there are."""
    order = np.argsort(-counts, kind='stable')
    shares = counts / counts.sum()
    parts = [f'{label_names[label]} {shares[label]:.1%}' for label in order[:n_shown]]
    n_more = len(label_names) - n_shown
    if n_more > 0:
        parts.append(f'{n_more} more labels, the rarest in {counts.min():,} texts')
    return ', '.join(parts)


def progress_bar(iter_num, total_iters, loss, texts_per_s, seconds_left):
    """-> '[#####...............]  25%  iter 500/2,000  loss 0.8123  1,302 texts/s  1:23 left'"""
    share = iter_num / total_iters
    bar = '#' * int(20 * share)
    minutes, seconds = divmod(int(seconds_left), 60)
    return (
        f'[{bar:.<20}] {share:4.0%}  iter {iter_num:,}/{total_iters:,}  loss {loss:.4f}  '
        f'{texts_per_s:,.0f} texts/s  {minutes}:{seconds:02} left'
    )


def better_baseline(evaluation, metric):
    """A sentence if the bag of words has the better test score by metric, or ''."""
    name = metric.removeprefix('val_')
    if name not in METRICS:
        name = 'accuracy'
    bag_of_words = evaluation['baseline'].get('bag_of_words')
    if not bag_of_words:
        return ''
    value = METRICS[name](np.array(bag_of_words['confusion']))
    if value <= evaluation[name]:
        return ''
    return f'a bag of words does better here ({format_metric(name, value)})'


def read_log(path, iter_num):
    """The lines of metrics.jsonl up to step iter_num: what was logged later will come again."""
    if iter_num == 0:
        return []
    lines = read_json_lines(path)
    if not all(isinstance(line, dict) and isinstance(line.get('iter'), int) for line in lines):
        raise ValueError(f'{path} is not the log of a training; remove it')
    return [line for line in lines if line['iter'] <= iter_num]


def open_log(path, lines):
    """metrics.jsonl, which holds these lines and is to be written on."""
    write_whole(path, ''.join(to_json(line) + '\n' for line in lines))
    # line by line, so that no kill takes what was logged
    return open(path, 'a', buffering=1, encoding='utf-8')


def log_metrics(log_file, wandb_run, **values):
    """A line of metrics.jsonl; its numbers also go to wandb, if there is a run of it."""
    try:
        log_file.write(to_json(values) + '\n')
    except OSError as error:
        stop(cannot_be_written(log_file.name, error.strerror, RESUME))
    if wandb_run is not None:
        numbers = {key: value for key, value in values.items() if isinstance(value, (int, float))}
        wandb_run.log(numbers, step=values['iter'])


# -----------------------------------------------------------------------------
# what settings may be

CHOICES = {
    'backend': ('auto', 'nccl', 'gloo'),
    'class_weight': ('none', 'balanced', 'sqrt', 'sampling', 'logit'),
    'dtype': ('auto', *DTYPES),
    'graphs': ('auto', 'on', 'off'),
    'keep': ('first', 'last', 'both'),
    'metric': ('auto', 'val_loss', 'val_balanced_loss', *(f'val_{name}' for name in METRICS)),
    'pool': ('auto', *MODEL_CHOICES['pool']),
}
POSITIVE = {
    'log_interval', 'block_size', 'batch_size', 'gradient_accumulation_steps', 'n_layer', 'n_head',
    'n_embd', 'layer_decay',
}  # fmt: skip
BELOW_ONE = {'dropout', 'head_dropout', 'token_dropout', 'label_smoothing', 'beta1', 'beta2'}

# settings of the machine; the runs of --seeds and --folds may differ in these
FREE_FOR_REPEATS = {
    'out_dir', 'log_interval', 'backend', 'device', 'compile', 'graphs', 'data_dir',
    'fallback_config', 'wandb_log', 'wandb_project', 'wandb_run_name', 'wandb_texts',
}  # fmt: skip
# A resumed run may also end elsewhere, which the learning rate follows, and its files may have been
# moved: that they are the same is known by their checksums, in the recipe.
FREE_FOR_RESUME = FREE_FOR_REPEATS | {
    'max_epochs', 'max_iters', 'min_epochs', 'patience', 'dataset', 'test_file', 'val_file',
    'tokenizer',
}  # fmt: skip


def check_settings(config, world_size):
    """ValueError with one line for the first setting whose value cannot be meant."""
    for name, choices in CHOICES.items():
        if config[name] not in choices:
            listed = ', '.join(choices)
            raise ValueError(f'{name}={config[name]} is unknown; choose one of {listed}')
    for name, value in config.items():
        if not isinstance(value, (int, float)):
            continue
        if name in POSITIVE and value <= 0:
            raise ValueError(f'{name}={value} is out of range; set it above 0')
        if value < 0:
            raise ValueError(f'{name}={value} is out of range; set it to 0 or more')
        if name in BELOW_ONE and value >= 1:
            raise ValueError(f'{name}={value} is out of range; set it below 1')
    if config['seed'] >= 2**31:
        raise ValueError(f'seed={config["seed"]} is out of range; set it below {2**31}')
    if config['max_iters'] == 0 and config['max_epochs'] == 0:
        raise ValueError('max_iters and max_epochs are both 0; set one of them')
    if config['head_lr'] > 0 and config['learning_rate'] == 0:
        raise ValueError('head_lr needs a learning_rate above 0; set one')
    n_passes = config['gradient_accumulation_steps']
    if n_passes % world_size != 0:
        given = f'gradient_accumulation_steps={n_passes} cannot be shared'
        raise ValueError(f'{given}; make it a multiple of the {world_size} processes')


def check_language_model(config):
    """ValueError for a setting that has no meaning where there are no labels."""
    if config['labelled']:
        return
    if config['class_weight'] != 'none':
        raise ValueError('class_weight needs labels; leave it out, or set labelled=True')
    for name in ('head_epochs', 'head_lr', 'label_smoothing', 'lm_weight'):
        if config[name] > 0:
            raise ValueError(f'{name} is for classifiers, and labelled is False; set it to 0')
    if config['metric'] not in ('auto', 'val_loss'):
        raise ValueError('without labels there is no metric but val_loss; set --metric=auto')
    if config['folds'] or config['seeds']:
        what = 'folds and seeds are compared by their test scores, which need labels'
        raise ValueError(f'{what}; set --folds=0 and --seeds=0')


# -----------------------------------------------------------------------------
# the run; under a guard, because bench.py and the tests import what stands above

if __name__ == '__main__':
    defaults = vars(prepare) | globals()  # a copy, before configure overwrites the globals
    # Config files and the command line set the globals above. prepare.py's settings stand only in
    # config, which goes into the checkpoints.
    config = configure(globals(), prepare)
    if config['fallback_config']:
        config = fall_back_if_unreachable(config, defaults)
    config['init_from'] = init_from = os.path.expanduser(init_from)
    rank = int(os.getenv('RANK', '0'))
    world_size = int(os.getenv('WORLD_SIZE', '1'))
    is_master = rank == 0
    last_path = os.path.join(out_dir, 'last.pt')
    best_path = os.path.join(out_dir, 'best.pt')
    resume_command = f'python train.py {shlex.quote(f"--out_dir={out_dir}")} --init_from=resume'
    metrics_path = os.path.join(out_dir, 'metrics.jsonl')
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    signals = []  # the numbers of those by which the run was asked to stop

    def say(text, end='\n'):
        if not is_master:
            return
        text = printable(text)
        if is_terminal:
            text = f'\r\x1b[K{text}'  # in place of the progress line
        try:
            print(text, end=end, flush=True)
        except OSError as error:  # its reader has gone away, or the disk is full
            signals.append(signal.SIGTERM)
            discard_stdout()
            what = f'stdout cannot be written ({error.strerror}), so the run saves and stops'
            print_error(f'{what}; to go on: {resume_command}')

    def quit_at_once(number, frame):
        print_error('interrupted')
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, quit_at_once)  # until there is something to save

    # whose settings: of several runs, of a run to go on from, or of a new one
    resumed = None  # the checkpoint to go on from
    lock = None  # on out_dir, until this process ends
    try:
        check_language_model(config)
        if seeds or (config['folds'] and not config['fold']):
            sys.exit(run_repeats(config, FREE_FOR_REPEATS))
        if is_master and os.path.isdir(out_dir):
            lock = lock_folder(out_dir)
        if init_from == 'resume':
            resumed, config = resume_checkpoint(last_path, config, defaults, FREE_FOR_RESUME)
            # from here on the globals are the settings of that run
            globals().update({name: config[name] for name in config if name in globals()})
        check_settings(config, world_size)
        get_lr(warmup_iters, decay_iters=1)  # only to see now, not later, that decay_lr is known
        device, ptdtype = choose_device(device, dtype)
        old_log = read_log(metrics_path, resumed['run']['iter'] if resumed else 0)
    except ValueError as error:
        stop(error)
    except OSError as error:
        stop(f'{error}; check --out_dir')

    # machine
    device_type = device.split(':')[0]
    if world_size > 1:
        if backend == 'auto':
            backend = 'nccl' if device_type == 'cuda' else 'gloo'
        if device_type == 'cuda':
            torch.cuda.set_device(device)  # choose_device gives each process a GPU of its own
        # the others wait while the first one downloads and prepares
        dist.init_process_group(backend, timeout=timedelta(hours=6))
    autocast = torch.autocast(device_type, ptdtype, enabled=ptdtype != torch.float32)
    scaler = torch.amp.GradScaler(device_type, enabled=ptdtype == torch.float16)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(seed)  # alike on all processes, which start from the same weights

    # -------------------------------------------------------------------------
    # data
    is_lm = not config['labelled']
    source = ''  # the folder of a pretrained checkpoint
    begun_from = None  # the checkpoint of a run to train on from
    tokenizer = None  # that of an earlier run; else prepare() makes it, as the setting says
    n_positions = config['block_size']  # at most so many tokens can be read of a text
    try:
        # the first process prepares; the others wait, and find it prepared
        if not is_master:
            dist.barrier()
        if resumed is not None:
            tokenizer = carried_tokenizer(resumed)
        elif is_run(init_from):
            begun_from = read_checkpoint(init_from)
            check_start(init_from, begun_from, out_dir, config['tokenizer'])
            tokenizer = load_tokenizer(begun_from['tokenizer'])
            config['tokenizer'] = tokenizer.name
            n_positions = begun_from['config']['block_size']
        elif init_from != 'scratch':
            source = find(init_from)
            if config['tokenizer'] == 'auto':
                config['tokenizer'] = os.path.abspath(source)  # 'gpt2' is a name of its own
            n_positions = max_positions(source)
        if config['block_size'] == defaults['block_size']:
            # not set, so that it is no mistake if the model to begin from reads shorter texts
            config['block_size'] = min(config['block_size'], n_positions)
        block_size = config['block_size']
        folder = prepare.prepare(config, tokenizer)
        if is_master and world_size > 1:
            dist.barrier()
        meta = read_meta(folder)
        tokenizer_state = read_meta(folder, 'tokenizer_state.json')
        report = read_meta(folder, 'report.json')
        splits = {name: Split(folder, name, block_size, config['keep']) for name in meta['rows']}
        if is_lm:
            splits = {name: Blocks(split) for name, split in splits.items()}
        if resumed is not None:
            check_same_data(resumed, meta, last_path, folder)
    except (ValueError, OSError) as error:
        stop(error)
    train_split = splits['train']
    label_names = meta['labels']
    n_class = len(label_names)
    vocab_size = meta['tokenizer']['n_vocab']
    counts = np.bincount(train_split.labels, minlength=n_class)  # (n_class,), of a LM (1,)
    if metric == 'auto' and is_lm:
        metric = 'val_loss'
    if metric == 'auto':
        has_rare_label = 2 * counts.min() < len(train_split) / n_class
        metric = 'val_macro_f1' if has_rare_label else 'val_loss'
    if device_type == 'cpu':
        keep_memory()  # saves 2 to 17 % of a step

    # -------------------------------------------------------------------------
    # model
    sizes = {'n_layer': n_layer, 'n_head': n_head, 'n_embd': n_embd, 'causal': causal}
    others = {
        'block_size': block_size,
        'dropout': dropout,
        'head_dropout': head_dropout,
        'token_dropout': token_dropout,
    }
    if pool != 'auto':
        others['pool'] = pool
    has_pairs = 'pair_sep' in meta['tokenizer']
    if has_pairs:
        others['pair_sep'] = meta['tokenizer']['pair_sep']
    if source or begun_from is not None:
        # these have sizes of their own and refuse others; causal they may be told
        others |= {name: value for name, value in sizes.items() if value != defaults[name]}
    try:
        if resumed is not None:
            model = build_model(last_path, resumed)
        elif begun_from is not None:
            model = model_of_run(init_from, begun_from, n_class, label_names, others)
            model.loaded['notes'] += cleaning_notes(init_from, begun_from, config)
        elif source:
            model = Transformer.from_pretrained(source, n_class, label_names, **others)
            check_tokens(source, tokenizer_state, vocab_size, model.config.vocab_size)
        else:
            config_of_model = Config(vocab_size=vocab_size, n_class=n_class, **sizes, **others)
            model = Transformer(config_of_model)
        if has_pairs and model.config.causal:
            raise ValueError(prepare.PAIRS_NEED)
        model.freeze(freeze)  # before the optimizer, which takes only what is to learn
        if lm_weight > 0 and not model.config.causal:
            raise ValueError('lm_weight needs a causal model, and this one is not; set it to 0')
        # a new folder is made only now, when all settings and files have proved to be right
        if is_master and lock is None:
            lock = lock_folder(out_dir)
    except ValueError as error:
        stop(error)
    except OSError as error:
        stop(f'{error}; check --out_dir and --init_from')
    model.to(device).train()
    net = torch.compile(model) if compile else model
    if world_size > 1:
        net = DistributedDataParallel(net, find_unused_parameters=head_epochs > 0)

    # objective
    weight, prior = loss_weights(counts, device)
    objective = {
        'class_weight': weight,
        'prior': prior,
        'label_smoothing': label_smoothing,
        'lm_weight': lm_weight,
    }

    # CUDA graphs: a recorded step is one pass of one process, and must not look at tensors' values
    can_record = (
        device_type == 'cuda'
        and gradient_accumulation_steps == 1
        and ptdtype != torch.float16
        and lm_weight == 0
        and not is_lm
        and not compile
    )
    if graphs == 'on' and not can_record:
        needs = 'CUDA, one pass, no float16, no compile, no lm_weight'
        stop(f'graphs=on needs {needs}; set --graphs=auto')
    use_graphs = can_record and graphs != 'off'

    # optimizer
    optimizer = model.configure_optimizer(
        weight_decay, learning_rate, (beta1, beta2), layer_decay, head_lr
    )
    if resumed is not None:
        try:
            check_optimizer(resumed['optimizer'], optimizer)
            # the groups are ours, because the settings are the same
            groups = optimizer.state_dict()['param_groups']
            states = {'state': resumed['optimizer']['state'], 'param_groups': groups}
            optimizer.load_state_dict(states)
            scaler.load_state_dict(resumed['scaler'])
        except Exception as error:  # what somebody has put into it may lead to any of them
            stop(f'{last_path} cannot be used: {error}; remove it and train again')
    for group in optimizer.param_groups:
        # load_state_dict brings these two along, perhaps from another machine. A graph reads the
        # rate from the tensor that it was recorded with.
        group['lr'] = torch.zeros((), device=device) if use_graphs else 0.0
        group['capturable'] = device_type == 'cuda'

    # the length of the run
    texts_per_step = batch_size * gradient_accumulation_steps
    iters_per_epoch = math.ceil(len(train_split) / texts_per_step)
    total_iters = count_iters(iters_per_epoch)
    decay_iters = lr_decay_iters if lr_decay_iters > 0 else total_iters
    head_iters = head_epochs * iters_per_epoch

    # what is about to happen, in three lines: data, model, plan
    n_params = model.num_params()
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    sizes = [f'{n:,} {name}' for name, n in meta['rows'].items()]
    if report['rejected'] > 0:
        sizes.append(f'{report["rejected"]:,} rejected (see {folder}/rejected.csv)')
    if is_lm:
        contents = f'{meta["tokens"]["train"]:,} training tokens in blocks of {block_size}'
    else:
        contents = describe_labels(label_names, counts)
    share_cut = (np.diff(train_split.offsets) > block_size).mean()
    reads = 'a language model' if is_lm else f'pool {model.config.pool}'
    notes = [f'{model.config.n_layer} layers {model.config.n_embd} wide, {reads}']
    if init_from == 'scratch':
        notes.append('from scratch')
    elif resumed is not None:
        notes.append(f'begun with the weights of {init_from}')
    else:
        notes += [f'weights of {source or init_from}', *model.loaded['notes']]
    if freeze > 0:
        notes.append(f'frozen: embeddings, {freeze} layers')
    machine = f'{device}, {str(ptdtype).removeprefix("torch.")}'
    if use_graphs:
        machine += ', CUDA graphs'
    say(f'data   {meta["dataset"]}: {", ".join(sizes)}; {contents}')
    if not is_lm:
        say(f'       {share_cut:.1%} of the training texts are cut to {block_size} tokens')
    say(f'model  {n_params:,} parameters, {n_trained:,} to train; {"; ".join(notes)}')
    unit = 'blocks' if is_lm else 'texts'
    say(
        f'plan   {total_iters:,} steps of {texts_per_step} {unit}, {iters_per_epoch:,} an epoch; '
        f'{machine}; the best by {metric} is kept as {best_path}'
    )

    # -------------------------------------------------------------------------
    # the state of the loop; with weights and optimizer it is all that last.pt needs, because the
    # rows of a step are fixed by (seed, epoch) and its dropout by (seed, step, micro-batch)
    run = {
        'iter': 0,  # steps done
        'best': None,  # the scores of the best evaluation ...
        'best_score': None,  # ... and what it was chosen by
        'bad_evals': 0,  # evaluations since the best one
        'loss_sum': 0.0,  # over the steps since the last evaluation, loss_n of them
        'loss_n': 0,
        'examples': 0,  # texts trained on, in train_seconds
        'train_seconds': 0.0,
        'seconds': 0.0,  # of the loop, evaluations included
    }
    command = shlex.join(['python', *sys.argv])
    if resumed is not None:
        run = resumed['run']
        command = resumed['command']
    resumed = begun_from = None  # their weights and optimizer state need not stay in memory

    log_file = None

    def save(path, **more):
        """Writes best.pt or last.pt: what they have in common, and more."""
        if not is_master:
            return
        checkpoint = {
            'model': model.state_dict(),
            'config': dict(vars(model.config)),
            'settings': config,
            'labels': label_names,
            'dataset': meta['dataset'],
            'tokenizer': tokenizer_state,
            'recipe': meta['recipe'],
            'command': command,
            **more,
        }
        try:
            save_checkpoint(path, checkpoint)
        except ValueError as error:
            stop(error)

    def save_last():
        try:
            if log_file is not None:
                os.fsync(log_file.fileno())  # after a power cut it must not lag behind last.pt
        except OSError as error:
            stop(cannot_be_written(metrics_path, error.strerror, RESUME))
        states = {'optimizer': optimizer.state_dict(), 'scaler': scaler.state_dict()}
        save(last_path, run=run, **states)

    def recorded_step(idx, lengths, targets):
        """A step of one micro-batch -> (2,): its loss and gradient norm."""
        batch = (idx, lengths, targets)
        loss = forward_backward(net, batch, objective, texts_per_step, autocast, scaler)
        return torch.stack([loss, clip_and_update(model, optimizer, scaler)])

    graph_step = GraphStep(recorded_step) if use_graphs else None

    # What is broken in prediction, on the disk or in wandb shows now, not after an epoch, and a
    # run that cannot begin leaves the log of an older one as it is.
    if not is_lm:
        predict(model, splits.get('val', train_split), 1, ptdtype, rows=np.arange(1))
    wandb_run = None
    if is_master:
        if wandb_log:
            import wandb

            name = wandb_run_name or os.path.basename(out_dir)
            wandb_run = wandb.init(project=wandb_project, name=name, config=config, dir=out_dir)
        if run['iter'] == 0 and os.path.exists(best_path):
            say(f'{best_path} is of an earlier run, until the first evaluation')
        save_last()
        try:
            log_file = open_log(metrics_path, old_log)
        except (ValueError, OSError) as error:
            stop(error)

    # Ctrl-C and the like finish the step and save. A second one ends the process at once, but for
    # a closed terminal, which the kernel tells as well as the shell.
    def on_signal(number, frame):
        signals.append(number)
        if number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    handled_signals = stop_signals()
    for number in handled_signals:
        signal.signal(number, on_signal)

    # -------------------------------------------------------------------------
    # training loop
    iter_num = first_iter = run['iter']
    steps = training_steps(train_split, texts_per_step, first_iter, iters_per_epoch)
    begin = clock = last_shown = time.perf_counter()
    seconds_between_bars = 0.2 if is_terminal else 60.0
    if 'val' in splits:
        columns = 'perplexity' if is_lm else 'accuracy  macro-F1'
        say(f'   iter   epoch  train loss  val loss  {columns}')
    else:
        say('there is no validation split, so the last weights are kept, uncalibrated')
    while True:
        if patience > 0 and run['bad_evals'] >= patience:
            stopped = 'early'
            break
        if iter_num >= total_iters:
            stopped = 'max'
            break
        step_begin = time.perf_counter()

        # at first the head may train alone
        head_only = iter_num < head_iters
        if iter_num in (first_iter, head_iters):
            model.freeze(len(model.h) if head_only else freeze)

        # the learning rate of this step, scaled per parameter group
        lr = get_lr(iter_num, decay_iters)
        for group in optimizer.param_groups:
            if use_graphs:
                group['lr'].fill_(lr * group['lr_scale'])
            else:
                group['lr'] = lr * group['lr_scale']

        # forward, backward, clip, update; dropout is fixed by the seed, the step and the micro-step
        step_rows = next(steps)
        step_seed = (seed << 32) + iter_num * gradient_accumulation_steps
        if use_graphs and len(step_rows) == texts_per_step:
            batch = get_batch(train_split, step_rows, device, few_lengths=True)
            torch.manual_seed(step_seed)
            loss_and_norm = graph_step(*batch, variant=head_only)
        else:
            loss = torch.zeros((), device=device)
            micro_steps = range(rank, gradient_accumulation_steps, world_size)
            for micro_step in micro_steps:
                # every k-th row: they are sorted by length, so all micro-batches are alike
                rows = step_rows[micro_step::gradient_accumulation_steps]
                n_texts = len(step_rows)
                if len(rows) == 0:
                    # An epoch's last step may be too short for all processes, which must stay
                    # together: one without rows computes some text, with a weight of 0.
                    rows = step_rows[:1]
                    n_texts = math.inf
                batch = get_batch(train_split, rows, device)
                if world_size > 1:
                    # gradients are exchanged once, and DDP averages them where we want the sum
                    net.require_backward_grad_sync = micro_step == micro_steps[-1]
                    n_texts = n_texts / world_size
                torch.manual_seed(step_seed + micro_step)
                loss += forward_backward(net, batch, objective, n_texts, autocast, scaler)
            loss_and_norm = torch.stack([loss, clip_and_update(model, optimizer, scaler)])

        # all processes agree on the loss and on whether to stop
        if parent_has_ended():
            signals.append(signal.SIGHUP)
        stop_requested = len(signals) > 0
        if world_size > 1:
            loss = loss_and_norm[0] / world_size  # the factor that n_texts / world_size has brought
            shared = torch.tensor([loss, len(signals)], device=device)
            dist.all_reduce(shared)
            loss_and_norm[0] = shared[0]
            stop_requested = shared[1].item() > 0

        # this waits for the GPU, so that a loss that is not finite ends the run at once
        loss, grad_norm = loss_and_norm.tolist()
        if not math.isfinite(loss) or (not math.isfinite(grad_norm) and not scaler.is_enabled()):
            where = f'the loss is {loss}, its gradient norm {grad_norm}, at iter {iter_num}'
            remedy = f'lower learning_rate (now {lr:.1e}) or set --dtype=float32, and train again'
            if is_terminal:
                say('')  # ends the progress line
            stop(f'{where}; {remedy}; {out_dir} is as the last evaluation left it')

        # count
        now = time.perf_counter()
        iter_num += 1
        run['iter'] = iter_num
        run['examples'] += len(step_rows)
        run['train_seconds'] += now - step_begin
        run['loss_sum'] += loss
        run['loss_n'] += 1
        epoch = iter_num / iters_per_epoch
        is_last = iter_num == total_iters

        # log, and show the progress: a bar that stays on a terminal, elsewhere a line a minute
        if is_master and (iter_num % log_interval == 0 or is_last):
            # with float16 it may be infinite, which JSON does not know; the step is left out then
            norm = grad_norm if math.isfinite(grad_norm) else None
            step = {'iter': iter_num, 'epoch': epoch, 'loss': loss, 'lr': lr, 'norm': norm}
            log_metrics(log_file, wandb_run, **step)
        if now - last_shown > seconds_between_bars:
            last_shown = now
            seconds_left = (now - begin) / (iter_num - first_iter) * (total_iters - iter_num)
            texts_per_s = run['examples'] / run['train_seconds']
            bar = progress_bar(iter_num, total_iters, loss, texts_per_s, seconds_left)
            say(bar, end='' if is_terminal else '\n')

        # evaluate, and keep the best checkpoint; all processes do, so that they agree on patience
        eval_is_due = is_last or iter_num % (eval_interval or iters_per_epoch) == 0
        if eval_is_due and 'val' in splits:
            if is_lm:
                val_loss = lm_loss(model, splits['val'], device, autocast, rank, world_size)
                scores = {'nll': val_loss, 'perplexity': math.exp(min(val_loss, 700))}
                names = ['perplexity']
                shown = f'{scores["perplexity"]:11.2f}'
                more = {}
            else:
                logits, targets = predict_split(model, splits['val'], ptdtype, rank, world_size)
                scores = score(logits, targets, label_names)
                names = METRICS
                shown = f'{scores["accuracy"]:9.3f} {scores["macro_f1"]:9.3f}'
                more = {'val_balanced_loss': scores['balanced_nll']}
            val_scores = {'iter': iter_num, 'epoch': epoch, 'val_loss': scores['nll']}
            val_scores |= {f'val_{name}': scores[name] for name in names}
            if not math.isfinite(scores['nll']):
                remedy = 'lower learning_rate or set --dtype=float32, and train again'
                stop(f'the validation loss is {scores["nll"]} at iter {iter_num}; {remedy}')
            new_score = selection_score(scores, metric)
            is_best = run['best'] is None or new_score > run['best_score']
            if is_best:
                run |= {'best': val_scores, 'best_score': new_score, 'bad_evals': 0}
            else:
                run['bad_evals'] += 1
            # with all that the objective adds, so it is not to be compared with the validation loss
            train_loss = run['loss_sum'] / run['loss_n']
            run |= {'loss_sum': 0.0, 'loss_n': 0}
            row = f'{iter_num:7,} {epoch:7.2f} {train_loss:11.4f} {scores["nll"]:9.4f} {shown}'
            say(row + ('  best so far' if is_best else ''))
            if is_master:
                log_metrics(log_file, wandb_run, **val_scores, **more, train_loss=train_loss)
            if is_best:
                temperature = 1.0 if is_lm else fit_temperature(logits, targets)
                save(best_path, metrics=scores, best=val_scores, temperature=temperature)

        # without a validation split nothing can be chosen: the last weights are kept
        if is_last and 'val' not in splits:
            run['best'] = {'iter': iter_num, 'epoch': epoch}
            save(best_path, metrics=None, best=run['best'], temperature=1.0)

        # save what a resumed run needs
        if eval_is_due or stop_requested:
            now = time.perf_counter()
            run['seconds'] += now - clock
            clock = now
            save_last()
        if stop_requested:
            stopped = 'signal'
            say(f'stopped at iter {iter_num:,}; to go on: {resume_command}')
            break

    # -------------------------------------------------------------------------
    # the end: the best weights, once over the test split
    for number in handled_signals:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, quit_at_once)
    is_finished = is_master and stopped != 'signal'
    test = None
    evaluation = None
    if is_finished and is_lm:
        say(f'to train a classifier from it: python train.py --init_from={out_dir} --dataset=...')
    elif is_finished and run['best'] is not None and 'test' in splits:
        try:
            classifier = Classifier(best_path, device, dtype)
            examples = split_examples(classifier, folder, 'test')
            evaluation = evaluate(classifier, examples, out_dir)
            print_evaluation(evaluation)
            warning = better_baseline(evaluation, metric)
            if warning and init_from == 'scratch':
                warning += '; try config/finetune_own.py, which starts from a pretrained model'
            elif warning and share_cut > 0.1:
                warning += f'; it reads all of each text: try --block_size={2 * block_size}'
            if warning:
                say(warning)
        except (ValueError, OSError) as error:
            stop(f'{error}; the training is done: mend this, then {resume_command} judges it')
        test = {key: evaluation[key] for key in ('accuracy', 'accuracy_ci', 'macro_f1')}
        test['recall'] = {name: x['recall'] for name, x in evaluation['per_class'].items()}
    summary = {
        'run': out_dir,
        'dataset': meta['dataset'],
        'tokenizer': meta['tokenizer']['name'],
        'n_params': n_params,
        'n_train': meta['rows']['train'],
        'n_val': meta['rows'].get('val', 0),
        'n_test': meta['rows'].get('test', 0),
        'best': run['best'],
        'test': test,
        'train_examples_per_s': round(run['examples'] / max(run['train_seconds'], 1e-9), 1),
        'seconds': round(run['seconds'] + time.perf_counter() - clock, 1),
        'stopped': stopped,
        'seed': seed,
        'fold': config['fold'],
        'command': command,
        'git': git_commit(),
        'machine': describe_machine(device, ptdtype),
    }
    if is_finished:
        try:
            write_sealed_json(os.path.join(out_dir, 'summary.json'), summary)
        except ValueError as error:
            stop(f'{error}: {resume_command}')
    if wandb_run is not None:
        wandb_run.summary.update(summary)
        if evaluation is not None:
            wandb_run.log(wandb_plots(wandb, evaluation, wandb_texts))
        wandb_run.finish()
    say(to_json(summary))
    if world_size > 1:
        dist.destroy_process_group()
    if stopped == 'signal':
        if not signals:
            signals.append(signal.SIGTERM)  # another process of this training had it
        sys.exit(128 + signals[0])  # as a shell reports it: 130 after Ctrl-C, 143 after kill
