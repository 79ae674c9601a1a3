"""
Trains a text classifier, judges it on the test split, and leaves out_dir/best.pt: all that sample_classify.py needs.
$ python train.py config/train_sentiment_scratch.py
$ python train.py config/finetune_gpt2.py --block_size=256 --dataset=mine.csv --text_column=body --label_column=mood
$ torchrun --standalone --nproc_per_node=2 train.py config/train_sentiment_scratch.py --gradient_accumulation_steps=2
"""

import itertools
import json
import math
import os
import shlex
import signal
import sys
import time

import numpy as np
import torch
import torch.distributed as dist

from batches import Recorded, epoch_batches, get_batch, predict
from configurator import configure, stop
from evaluate import choose_machine, conclude, resume_run, save_run, several, wandb_plots
from families import check_tokens
from metrics import fit_temperature, imbalance, metrics, write_whole
from model import Config, Transformer
from prepare import Split, prepare, read_json
from pretrained import Unreachable, find

# -----------------------------------------------------------------------------
# i/o
out_dir = 'out/run'
eval_interval = 0  # iterations between evaluations of the whole validation split; 0: once an epoch
log_interval = 10
init_from = 'scratch'  # or gpt2, minilm, bert-base-uncased, ..., a hub's org/model, a folder; 'resume': from out_dir/last.pt
wandb_log = False
wandb_project = 'nanosentiment'
wandb_run_name = ''  # '' is the name of out_dir
# data: see prepare.py for what these do
dataset = 'customer_service'
fallback_dataset = ''  # used, and loudly so, where the dataset is neither here nor to be downloaded
text_column = ''
label_column = ''
test_file = ''
data_dir = ''
strict = False
tokenizer = 'auto'  # a checkpoint's own; from scratch bpe2048: most of GPT-2's 50,257 rows would never be trained
lowercase = True
strip_brackets = True
strip_html = True
speakers = 'all'
val_fraction = 0.1
test_fraction = 0.1
split_seed = 0  # apart from seed, so that runs of several seeds share one validation split
# batches
block_size = 256  # longer texts are cut
keep = 'last'  # which end of a long text stays: 'first', 'last' or 'both'
batch_size = 16  # texts of one forward and backward pass
gradient_accumulation_steps = 1  # such passes to one step, over all processes together
# model; a checkpoint brings its own n_layer, n_head, n_embd and causal
n_layer = 4
n_head = 4
n_embd = 192
causal = True
pool = 'auto'  # 'last', 'first' or 'mean'; auto: a checkpoint's own, from scratch 'last'
dropout = 0.2  # few texts want much
head_dropout = 0.0
token_dropout = 0.0  # whole tokens; from scratch, where texts repeat each other, .4 keeps them from being learned by heart
# fine-tuning
keep_layers = 0  # of a checkpoint, the lowest so many; 0: all. The top ones know most about what it was made for
freeze = 0  # the embeddings and this many layers stay as they came
reinit = 0  # so many layers at the top start fresh
layer_decay = 1.0  # the learning rate of a layer over that of the one above it; 0.9 spares what is general
head_lr = 0.0  # learning rate of the head, which starts fresh; 0.0: learning_rate
head_epochs = 0  # so many epochs the head learns alone, lest its first steps spoil the rest: https://arxiv.org/abs/2202.10054
# objective
adversarial = 0.0  # 0.05: after head_epochs, half a step on embeddings moved so far uphill: https://arxiv.org/abs/1605.07725
class_weight = 'none'  # for rare labels: 'balanced' 1/n, 'sqrt' 1/sqrt(n), 'sampling' draws all alike, 'logit' adjusts
label_smoothing = 0.0
lm_weight = 0.0  # next-token prediction beside the labels; without pre-training it is the teacher who has most to say
# optimizer
learning_rate = 1e-3
max_epochs = 10
max_iters = 0  # 0: by max_epochs
weight_decay = 0.1
beta1 = 0.9
beta2 = 0.99
grad_clip = 1.0  # 0.0: never
sparse_rows = False  # True: Adam skips the embeddings of absent words; faster where a small net has a large vocabulary
# schedule
decay_lr = 'cosine'  # or 'linear', or 'none'
warmup_iters = 50
lr_decay_iters = 0  # 0: to the end of the run
min_lr = 0.0
# stopping
metric = 'auto'  # val_loss, val_balanced_loss (labels alike), val_macro_f1; auto: F1 if a label has under half of 1/n_class
patience = 0  # evaluations without improvement before the run stops; 0: never
# system
backend = 'auto'  # of torchrun: nccl with CUDA, else gloo
device = 'auto'
dtype = 'auto'  # float32, bfloat16 or float16; auto: bfloat16 where the hardware multiplies it
compile = False  # torch.compile: a minute or two, then .75 of a step's time on an H100; on a CPU it was slower
graphs = 'auto'  # CUDA graphs: a step is recorded for each length, then replayed; auto: with CUDA, where that can be
# chance
seed = 1
seeds = 0  # 5: five runs with seeds 1 to 5, into out_dir/seed-1 and so on; what is finished there stays
folds = 0  # 5: five runs, each tested on another fifth of the training file and trained on the rest: out_dir/fold-1, ...
fold = 0  # of folds, the one to do; 0: all, one after the other
# -----------------------------------------------------------------------------

# what a resumed run may change: where it ends, which the learning rate heeds, and nothing else that would bend its course
FREE = 'out_dir log_interval init_from max_epochs max_iters patience device backend compile graphs data_dir fallback_dataset'
FREE += ' wandb_log wandb_project wandb_run_name'
KNOWN = dict(class_weight='none balanced sqrt sampling logit', keep='first last both', dtype='auto float32 bfloat16 float16')
KNOWN |= dict(metric='auto val_loss val_balanced_loss val_macro_f1', decay_lr='cosine linear none', pool='auto last first mean')
POSITIVE = 'log_interval block_size batch_size n_layer n_head n_embd layer_decay val_fraction'.split()


def get_lr(it, max_lr, warmup, decay, total, min_lr):
    """Linear warm-up over the first steps, then 'cosine' or 'linear' down to min_lr at step total."""
    if it < warmup:
        return max_lr * (it + 1) / warmup
    if decay == 'none':
        return max_lr
    done = min((it - warmup) / max(total - warmup, 1), 1.0)
    return min_lr + (max_lr - min_lr) * (0.5 * (1 + math.cos(math.pi * done)) if decay == 'cosine' else 1 - done)


def say(text, end='\n'):
    if rank == 0:
        print(text, end=end, flush=True)


if __name__ == '__main__':
    defaults = dict(globals())
    config = configure(globals())
    if (seeds or folds) and not fold:
        several(config, {*FREE.split()} - {'init_from', 'max_epochs', 'max_iters', 'patience'})  # free, but alike in one mean
    rank, world = int(os.getenv('RANK', '0')), int(os.getenv('WORLD_SIZE', '1'))
    last_pt, best_pt, log_path = (os.path.join(out_dir, name) for name in ('last.pt', 'best.pt', 'metrics.jsonl'))
    for key, value in config.items():
        if key in KNOWN and value not in KNOWN[key].split():
            stop(f'{key}={value} is unknown; choose one of {KNOWN[key]}')
        most = 1 if 'dropout' in key or key in ('label_smoothing', 'beta1', 'beta2') else math.inf
        if isinstance(value, (int, float)) and not (0 < value < most or value == 0 and key not in POSITIVE):
            stop(f'{key}={value} is out of range; set it {"above" if key in POSITIVE else "from"} 0{", below 1" * (most == 1)}')
    if keep_layers and init_from == 'scratch' or (head_lr or sparse_rows) and not learning_rate:
        stop('keep_layers wants a checkpoint (from scratch set n_layer); head_lr and sparse_rows a learning_rate above 0')

    # a checkpoint to go on from, with its own settings; machine
    try:
        last = resume_run(last_pt, config, defaults, FREE.split()) if init_from == 'resume' else None
        globals().update(config)
        device, ptdtype = choose_machine(device, dtype)
    except ValueError as e:
        stop(str(e))
    if gradient_accumulation_steps % world or not gradient_accumulation_steps:
        stop(f'gradient_accumulation_steps={gradient_accumulation_steps}: make it a positive multiple of the {world} processes')
    if world > 1:
        dist.init_process_group(backend if backend != 'auto' else 'nccl' if device.startswith('cuda') else 'gloo')
        if device.startswith('cuda'):
            torch.cuda.set_device(device)
    autocast = torch.autocast(device.split(':')[0], ptdtype, enabled=ptdtype != torch.float32)
    scaler = torch.amp.GradScaler(device.split(':')[0], enabled=ptdtype == torch.float16)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(seed % 2**63)

    # data: the first process prepares, the others find it prepared
    try:
        if rank > 0:
            dist.barrier()
        source = find(init_from) if not last and init_from != 'scratch' else ''
        config['tokenizer'] = tokenizer if tokenizer != 'auto' else source or 'bpe2048'
        try:
            folder = prepare(config)
        except Unreachable as e:
            if not fallback_dataset:
                raise
            lines = f'{e}; GOING ON WITH {fallback_dataset.upper()} INSTEAD: it says nothing about {dataset}'.split('; ')
            print('\n#  '.join(['#' * 120, *lines]), '#' * 120, sep='\n', file=sys.stderr)
            config |= {'dataset': fallback_dataset, 'text_column': '', 'label_column': ''}
            folder = prepare(config)
        if rank == 0 and world > 1:
            dist.barrier()
        meta, tokenizer_state = (read_json(folder, name) for name in ('meta.json', 'tokenizer_state.json'))
        splits = {name: Split(folder, name, block_size, keep) for name in meta['rows']}
    except (ValueError, OSError) as e:
        stop(str(e))
    if 'val' not in splits:
        stop(f'{folder} has too few texts for a validation split; every label needs two different texts')
    dataset, labels, n_vocab, train = meta['dataset'], meta['labels'], meta['tokenizer']['n_vocab'], splits['train']
    counts = np.bincount(train.labels, minlength=len(labels))
    metric = metric if metric != 'auto' else 'val_macro_f1' if 2 * counts.min() < len(train) / len(labels) else 'val_loss'

    # model
    try:
        ours = {key: config[key] for key in 'block_size dropout head_dropout token_dropout'.split()} | {'n_class': len(labels)}
        ours |= {key: config[key] for key in 'n_layer n_head n_embd causal pool'.split() if config[key] != defaults[key]}
        if source:  # it has sizes of its own, and refuses others
            model = Transformer.from_pretrained(source, labels=labels, keep_layers=keep_layers, **ours)
        else:
            model = Transformer(Config(**(last['config'] if last else ours | {'vocab_size': n_vocab})))
        model.freeze(freeze)
        model.reinit(reinit)
        if source:
            check_tokens(source, tokenizer_state, n_vocab, model.config.vocab_size)
        if lm_weight and not model.config.causal or sparse_rows and (lm_weight or world > 1 and head_epochs):
            raise ValueError('lm_weight wants a causal model; sparse_rows no lm_weight, nor head_epochs in torchrun; drop one')
        os.makedirs(out_dir, exist_ok=True)
    except (ValueError, OSError) as e:
        stop(f'{e}; check --out_dir and --init_from' if getattr(e, 'errno', None) else str(e))  # errno: the system's own
    if last:
        if last['recipe'] != meta['recipe']:
            stop(f'{last_pt} was trained on other data than {folder} now holds; bring it back, or train in another out_dir')
        model.load_state_dict(last['model'])
    model.to(device).train()
    optimizers = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), layer_decay, head_lr, sparse_rows)
    forward = torch.compile(model) if compile else model
    able = device.startswith('cuda') and ptdtype != torch.float16 and world == gradient_accumulation_steps == 1
    able = able and not any(config[key] for key in 'compile adversarial sparse_rows lm_weight'.split())  # they look at values
    if graphs not in ('auto', True, False) or graphs is True and not able:
        stop(f'graphs={graphs}: True wants CUDA, one pass, no float16, compile, adversarial, sparse_rows, lm_weight; try auto')
    recording = able and graphs is not False
    if world > 1:
        forward = torch.nn.parallel.DistributedDataParallel(forward, find_unused_parameters=head_epochs > 0)
    weight, prior = (x if x is None else x.to(device) for x in imbalance(counts, class_weight))
    objective = dict(class_weight=weight, prior=prior, label_smoothing=label_smoothing, lm_weight=lm_weight)

    # the length of the run
    step_size, micros = batch_size * gradient_accumulation_steps, range(rank, gradient_accumulation_steps, world)
    epoch_iters = math.ceil(len(train) / step_size)
    total_iters = max_iters or max_epochs * epoch_iters or stop('max_iters and max_epochs are both 0; set one of them')
    sizes, cut = meta['rows'] | {'rejected': read_json(folder, 'report.json')['rejected']}, np.diff(train.off) > block_size
    sizes = ' '.join(f'{name} {n:,}' for name, n in sizes.items())
    shares = ' '.join(f'{label} {n / len(train):.1%}' for label, n in zip(labels, counts))
    say(f'dataset {dataset} ({folder}): {sizes}; {shares}; {cut.mean():.1%} of the texts cut to {block_size} tokens')
    if source:
        anew = [f'the top {reinit} layers start fresh'] * (reinit > 0) + [f'frozen: embeddings, {freeze} layers'] * (freeze > 0)
        say('; '.join([f'weights of {source}', *model.loaded['notes'], *anew]))
    n_params, n_trained = model.num_params(), sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(f'model of {n_params:,} parameters, {n_trained:,} to train; {device}, {ptdtype}, graphs {recording}')
    say(f'{total_iters:,} steps of {step_size} texts, {epoch_iters:,} an epoch; best by {metric}; pool {model.config.pool}')

    def predict_all(split):  # shared among the processes -> logits and labels
        rows = [np.arange(r, len(split), world) for r in range(world)]
        parts = [predict(model, split, 4 * batch_size, ptdtype, rows[rank])] * world
        if world > 1:
            dist.all_gather_object(parts, parts[rank])
        return np.concatenate(parts), split.labels[np.concatenate(rows)].astype(np.int64)

    def checkpoint(**more):
        c = dict(model=model.state_dict(), config=dict(vars(model.config)), settings=config, labels=labels, dataset=dataset)
        return c | dict(tokenizer=tokenizer_state, recipe=meta['recipe'], command=command, **more)

    def save_last():
        if rank == 0:
            save_run(last_pt, checkpoint(run=run, optimizers=[x.state_dict() for x in optimizers], scaler=scaler.state_dict()))

    def write(**line):  # to metrics.jsonl
        if rank == 0:
            log.write(json.dumps(line) + '\n')
            if wandb_log:
                wandb.log({k: v for k, v in line.items() if isinstance(v, (int, float))}, step=line['iter'])

    def reseed(micro):
        torch.manual_seed((seed % 2**31 << 32) + run['iter'] * gradient_accumulation_steps + rank + micro * world)

    def update(*batches):  # a step on the loop's rows; of each of its parts (idx, lengths, targets) -> loss, gradient norm (2,)
        losses, shift = [], None
        for micro, again in itertools.product(range(len(batches)), range(passes)):
            if again:  # each text's embeddings, moved to where its loss grows fastest
                grad = shift.grad.nan_to_num(0, 0, 0)  # float16 may overflow
                shift = adversarial * grad / grad.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-12)
            else:
                idx, lengths, targets = batches[micro]
                shift = torch.zeros(*idx.shape, model.config.n_embd, device=device, requires_grad=True) if passes > 1 else None
            if micro or again:
                reseed(micro)
            forward.require_backward_grad_sync = again + 1 == passes and micro + 1 == len(batches)  # DDP's
            with autocast:
                _, loss = forward(idx, lengths, targets, **objective, shift=shift)
            loss = loss.sum() * (len(parts[micro]) > 0) / len(rows) / passes  # an epoch's last step may be too short for all
            scaler.scale(loss * world).backward()  # DDP averages, we want the sum
            losses.append(loss.detach())
        learning = [x for x in optimizers if any(p.grad is not None for group in x.param_groups for p in group['params'])]
        for optimizer in learning:  # the scaler refuses one that has no gradient at all
            scaler.unscale_(optimizer)
        norm = model.clip_grad(grad_clip)
        for optimizer in learning:
            scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        scaler.update()
        return torch.stack([sum(losses), norm])

    recorded = Recorded(lambda *batch: update(batch)) if recording else None

    command = last['command'] if last else shlex.join(['python', *sys.argv])
    # with weights and optimizer all that last.pt needs: texts come by (seed, epoch), dropout by (seed, iter, micro-batch)
    run = dict(iter=0, bad_evals=0, best=None, loss_sum=0.0, loss_n=0, examples=0, train_seconds=0.0, seconds=0.0)
    if last:
        run = last['run']
        for optimizer, state in zip(optimizers, last['optimizers'], strict=True):
            optimizer.load_state_dict(state)
        scaler.load_state_dict(last['scaler'])
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:  # a checkpoint may be of another machine; a graph reads the rate where it was recorded
        group |= dict(lr=torch.zeros((), device=device) if recording else 0.0, capturable=device.startswith('cuda'))
    predict(model, splits['val'], 1, ptdtype, np.arange(1))  # what is broken in there breaks now, not after an epoch
    if rank == 0:  # a run that cannot begin leaves what lies there: without a login wandb stops it, save_last on a full disk
        if wandb_log:
            import wandb

            wandb.init(project=wandb_project, name=wandb_run_name or os.path.basename(out_dir), config=config, dir=out_dir)
        save_last()
        lines = open(log_path, encoding='utf-8').readlines() if last and os.path.exists(log_path) else []  # later ones recur
        write_whole(log_path, ''.join(x for x in lines if x.endswith('\n') and json.loads(x)['iter'] <= run['iter']))
        log = open(log_path, 'a', 1, encoding='utf-8')  # line by line, so that no kill takes what was logged
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: (signals.append(number), signal.signal(number, signal.SIG_DFL)))

    # the loop
    shown, begin, first_iter, even = 0.0, time.perf_counter(), run['iter'], class_weight == 'sampling'
    epochs = (epoch_batches(train, step_size, seed, e, even) for e in itertools.count(first_iter // epoch_iters))
    for rows in itertools.islice(itertools.chain.from_iterable(epochs), first_iter % epoch_iters, None):
        if stopped := 'early' if 0 < patience <= run['bad_evals'] else 'max' if run['iter'] >= total_iters else '':
            break
        tick, alone = time.perf_counter(), run['iter'] < head_epochs * epoch_iters
        lr = get_lr(run['iter'], learning_rate, warmup_iters, decay_lr, lr_decay_iters or total_iters, min_lr)
        for group in groups:
            rate = lr * group['scale'] * (group['head'] or not alone)
            group['lr'] = group['lr'].fill_(rate) if recording else rate
        if run['iter'] == first_iter:  # `alone` ends only at a save, which moves first_iter; at each step it would cost .5 ms
            model.freeze(len(model.h) if alone else freeze)
        passes = 1 + (adversarial > 0 and not alone)
        parts = [rows[i::gradient_accumulation_steps] for i in micros]  # of sorted rows: all micro-batches are of like length
        batches = [get_batch(train, x if len(x) else rows[:1], device, recording) for x in parts]
        reseed(0)
        told = recorded(*batches[0], key=alone) if recording and len(rows) == step_size else update(*batches)
        if world > 1:  # one loss and one mind for all processes
            dist.all_reduce(told := torch.stack([told[0], told[1] / world, told.new_tensor(len(signals))]))
        loss_sum, norm, signalled = [*told.tolist(), len(signals)][:3]  # alone: ours; else what all_reduce has put before it
        if not math.isfinite(loss_sum) or (not math.isfinite(norm) and not scaler.is_enabled()):
            remedy = f'lower learning_rate (now {lr:.1e}) or set --dtype=float32; {out_dir} is as the last evaluation left it'
            stop(f'the loss is {loss_sum}, its gradient {norm}, at iter {run["iter"]}; {remedy}')
        now, it = time.perf_counter(), run['iter'] + 1
        done = dict(iter=1, examples=len(rows), train_seconds=now - tick, loss_sum=loss_sum, loss_n=1)
        run |= {key: run[key] + more for key, more in done.items()}
        epoch, at_end = it / epoch_iters, it == total_iters
        if it % log_interval == 0 or at_end:
            write(iter=it, epoch=epoch, loss=loss_sum, lr=lr, norm=norm)
        if (now - shown > 0.2) if sys.stdout.isatty() else (it % log_interval == 0):
            left, shown = int((now - begin) / (it - first_iter) * (total_iters - it)), now
            line = f'iter {it:,}/{total_iters:,} epoch {epoch:.2f}: loss {loss_sum:.4f}, lr {lr:.1e}, '
            line += f'{run["examples"] / run["train_seconds"]:,.0f} texts/s, {left // 60}:{left % 60:02} left at this pace '
            say(line, end='\r' if sys.stdout.isatty() else '\n')
        if evaluated := at_end or it % (eval_interval or epoch_iters) == 0:
            logits, y = predict_all(splits['val'])
            val, train_loss = metrics(logits, y, labels), run['loss_sum'] / run['loss_n']
            new = dict(iter=it, epoch=epoch, val_loss=val['nll'], val_accuracy=val['accuracy'], val_macro_f1=val['macro_f1'])
            loss = val['balanced_nll' if metric == 'val_balanced_loss' else 'nll']
            score = [val['macro_f1'], -loss] if metric == 'val_macro_f1' else [-loss]  # of equal F1 the lower loss
            better = run['best'] is None or score > run['best']['score']
            run |= dict(bad_evals=0, best=new | {'score': score}) if better else dict(bad_evals=run['bad_evals'] + 1)
            line = f'iter {it:,} epoch {epoch:.2f}: train loss {train_loss:.4f}, val loss {val["nll"]:.4f}, accuracy '
            say(f'{line}{val["accuracy"]:.3f}, macro-F1 {val["macro_f1"]:.3f}{"  best so far" if better else ""}')
            write(**new, val_balanced_loss=val['balanced_nll'], train_loss=train_loss)
            run |= dict(loss_sum=0.0, loss_n=0)
            if rank == 0 and better:
                save_run(best_pt, checkpoint(metrics=val, best=new, temperature=fit_temperature(logits, y)))
        if evaluated or signalled or it == head_epochs * epoch_iters:  # or the head was alone
            run['seconds'] += time.perf_counter() - begin
            begin, first_iter = time.perf_counter(), it
            save_last()
        if signalled:
            stopped = 'signal'
            say(f'stopped at iter {it:,}; to go on: python train.py {shlex.quote(f"--out_dir={out_dir}")} --init_from=resume')
            break

    # the end: the best weights, once over the test split
    to_judge = stopped != 'signal' and run['best'] and 'test' in splits and rank == 0
    judged = conclude(out_dir, device=device, dtype=dtype) if to_judge else {}
    recall = {label: x['recall'] for label, x in judged.get('per_class', {}).items()}
    test = {k: judged[k] for k in ('accuracy', 'accuracy_ci', 'macro_f1')} | {'recall': recall} if judged else None
    summary = dict(run=out_dir, dataset=dataset, tokenizer=meta['tokenizer']['name'], n_params=n_params)
    summary |= {f'n_{name}': meta['rows'].get(name, 0) for name in ('train', 'val', 'test')}
    summary |= dict(best=run['best'] and {k: v for k, v in run['best'].items() if k != 'score'}, test=test)
    summary |= dict(train_examples_per_s=round(run['examples'] / max(run['train_seconds'], 1e-9), 1))
    summary |= dict(seconds=round(run['seconds'] + time.perf_counter() - begin, 1), stopped=stopped)
    summary |= dict(seed=seed, fold=fold, command=command)
    if rank == 0 and stopped != 'signal':
        write_whole(os.path.join(out_dir, 'summary.json'), json.dumps(summary) + '\n')
    if rank == 0 and wandb_log:
        wandb.summary.update(summary)
        wandb.log(wandb_plots(wandb, judged) if judged else {})
        wandb.finish()
    say(json.dumps(summary))
    if world > 1:
        dist.destroy_process_group()
