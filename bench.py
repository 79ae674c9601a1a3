"""
How fast: training and inference beside the alternative's, taking turns in one process, with the same weights and rows.
$ python bench.py                      # MiniLM on SST-2: texts a second, and what share of this machine's peak that is
$ python bench.py --peer=transformers  # pip install transformers accelerate; onnx onnxruntime; datasets
$ python bench.py --peer=transformers --model=random-gpt2 --dataset=customer_service --block_size=256 --batch_size=16
$ python bench.py --what=train --model=scratch --dataset=synthetic --length=512 --rows=1000000
Only the ratio within one run says something, of real tokens a second: each turn of training draws texts of other lengths.
"""

import copy
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from importlib.util import find_spec

import numpy as np
import torch

import train
from batches import Recorded, epoch_batches, get_batch, keep_memory, pad, predict
from configurator import configure, stop
from evaluate import choose_machine
from model import Config, Transformer
from prepare import DATASETS, RECIPE, Split, find_raw, prepare, read_json, read_rows
from pretrained import find
from tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
model = 'minilm'  # a hub's name or a folder; random-gpt2 or random-bert: that shape; scratch: model.py's own
dataset = 'sst2'  # one that prepare.py knows; or synthetic: rows of random tokens, of two labels
rows = 20000  # of synthetic, and how many of any the alternative is given
length = 32  # of synthetic rows, in tokens
block_size = 128
batch_size = 32
sparse_rows = True  # see train.py; not with CUDA, where steps are recorded
what = 'train infer'  # or prepare
peer = ''  # transformers: its Trainer, pipeline and plain forward; ONNX Runtime, if installed; datasets, if to prepare
turns = 3  # A B A B A B; the median counts
steps = 64  # of a turn of training, after 8 that do not count: what we sort at once (the Trainer: 50); fewer vary in length
device = 'auto'
dtype = 'auto'
# -----------------------------------------------------------------------------
WARM, PASSES = 8, {'train': 3, 'infer': 1, 'prepare': 0}  # steps; a backward pass costs two forward ones
TOKENIZERS = {'random-gpt2': 'gpt2', 'random-bert': 'bpe16384', 'scratch': 'bpe8192'}


class Synthetic(Split):
    """n rows of random tokens of two labels: a split without files."""

    def __init__(self, n, length):
        rng, self.block_size, self.meta = np.random.default_rng(0), length, {'labels': '01', 'rows': {'train': n}}
        self.tokens, self.labels = rng.integers(5, 2000, length + n, np.uint16), rng.integers(0, 2, n, np.uint16)
        self.off = np.arange(n + 1) * length  # what batches are sorted by; rows overlap, and take no room

    def __getitem__(self, i):
        return self.tokens[i : i + self.block_size]


def clock():
    """Seconds, when all that the device was asked is done."""
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return time.perf_counter()


def peak():
    """GFLOP/s of a square matrix product in our dtype on our device, the best of several."""
    n, seconds = 8192 if device.startswith('cuda') else 2048, []
    a = torch.randn(n, n, device=device, dtype=ptdtype)
    for _ in range(8):
        tick = clock()
        a @ a
        seconds.append(clock() - tick)
    return 2 * n**3 / min(seconds) / 1e9


def update(idx, lengths, targets):
    """A step of train.py's loop -> its loss."""
    with torch.autocast(device.split(':')[0], ptdtype, enabled=ptdtype != torch.float32):
        loss = ours(idx, lengths, targets)[1].mean()
    loss.backward()
    ours.clip_grad(1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def train_ours():
    """Some steps -> seconds, as training returns; inference returns its answers."""
    for it in range(WARM + steps):
        if it == WARM:
            tick = clock()
        batch = get_batch(split, rows := next(batches if it >= WARM else warm), device, bool(recorded))
        seen.append((sizes[rows], batch[0].numel()))
        (recorded or update)(*batch).item()  # as train.py looks at each loss
    return clock() - tick


def collate(texts):
    """Their batch: dynamic padding, and a mask."""
    idx, lengths = pad([text['input_ids'] for text in texts])
    seen.append((lengths.tolist(), idx.numel()))
    mask = torch.arange(idx.size(1)) < lengths[:, None]
    idx[~mask] = theirs.config.pad_token_id or 0
    return dict(input_ids=idx, attention_mask=mask.long(), labels=torch.tensor([text['labels'] for text in texts]))


def train_theirs(**flags):
    """transformers' Trainer on the same rows, in the order that its flags say."""
    ticks = {}

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            ticks[state.global_step] = clock() if state.global_step in (WARM, WARM + steps) else 0

    texts = [dict(input_ids=split[i].tolist(), labels=int(split.labels[i])) for i in range(min(len(split), rows))]
    args = dict(per_device_train_batch_size=batch_size, max_steps=WARM + steps, use_cpu=device == 'cpu', report_to=[])
    args |= dict(learning_rate=5e-5, weight_decay=1e-4, save_strategy='no', logging_steps=10**6, disable_tqdm=True)
    args = transformers.TrainingArguments(tempfile.mkdtemp(), **args, **flags)
    net = copy.deepcopy(theirs)  # a net that accelerate has once prepared for float32 would stay in it, whatever the flags say
    transformers.Trainer(net, args, train_dataset=texts, data_collator=collate, callbacks=[Clock()]).train()
    theirs.load_state_dict(net.state_dict())
    return ticks[WARM + steps] - ticks[WARM]


@torch.no_grad()
def infer_theirs(run):
    """Their model in the loop that one would write: sorted by length, each batch padded to its longest text."""
    ids = their_tokenizer(raw, truncation=True)['input_ids'] if raw else test
    order, out = np.argsort([len(ids[i]) for i in range(len(ids))], kind='stable'), np.zeros(len(ids), dtype=int)
    for some in np.array_split(order, range(batch_size, len(order), batch_size)):
        batch = collate([dict(input_ids=ids[i], labels=0) for i in some])
        out[some] = run(batch['input_ids'].to(device), batch['attention_mask'].to(device)).argmax(axis=1)
    return out


def pipeline():
    """Their pipeline, as a run over the test rows."""
    pipe = transformers.pipeline('text-classification', model=theirs.eval(), tokenizer=their_tokenizer, device=device)
    return lambda: np.array([theirs.config.label2id[x['label']] for x in pipe(raw, batch_size=batch_size, truncation=True)])


def onnx():
    """Their model in ONNX Runtime, as a run over the test rows."""
    import onnxruntime

    path, names = os.path.join(tempfile.mkdtemp(), 'model.onnx'), ['input_ids', 'attention_mask']
    batch = collate([dict(input_ids=test[i], labels=0) for i in (0, 1)])
    free = {name: {0: 'batch', 1: 'length'} for name in names}
    args = dict(input_names=names, output_names=['logits'], dynamic_axes=free, dynamo=False)
    torch.onnx.export(theirs.eval(), (batch['input_ids'], {'attention_mask': batch['attention_mask']}), path, **args)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # else it takes all cores of the machine, also of those kept from us
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda: infer_theirs(lambda *some: session.run(None, dict(zip(names, (x.numpy() for x in some))))[0])


def prepare_theirs():
    """datasets' map with the fast tokenizer over the same texts, kept on the disk as ours are."""
    import datasets

    texts = [row[DATASETS[dataset]['columns'][0]] for path in find_raw(dataset, '').values() for _, row, _ in read_rows(path)]
    data = datasets.Dataset.from_dict({'text': texts})
    data.map(lambda some: their_tokenizer(some['text']), batched=True, remove_columns=['text']).save_to_disk(tempfile.mkdtemp())


def twin():
    """Our model with the weights that theirs has now."""
    theirs.save_pretrained(folder := tempfile.mkdtemp())
    return Transformer.from_pretrained(folder, n_class)  # of all positions: a text may come back a token longer than it went


if __name__ == '__main__':
    configure(globals())
    tempfile.tempdir = (room := tempfile.TemporaryDirectory()).name  # goes at the end, with all that the turns left in it
    try:
        if {*what.split()} - {*PASSES} or peer not in ('', 'transformers') or min(rows, length, batch_size, turns, steps) < 1:
            raise ValueError(f'what={what}: some of {", ".join(PASSES)}; peer={peer}: transformers or nothing; numbers above 0')
        device, ptdtype = choose_machine(device, dtype)
        source = '' if model in TOKENIZERS else find(model)
        settings = {key: getattr(train, key) for key in RECIPE} | dict(dataset=dataset, tokenizer=source or TOKENIZERS[model])
        if dataset == 'synthetic':
            split, test, block_size = Synthetic(rows, length), Synthetic(1000, length), length
        else:
            folder = prepare(settings)
            split, test = (Split(folder, name, block_size, 'last') for name in ('train', 'test'))
            tokenizer = load_tokenizer(read_json(folder, 'tokenizer_state.json'))
        n_class, n_rows = len(split.meta['labels']), sum(split.meta['rows'].values())
        if peer or model.startswith('random'):
            import transformers

            make, more = transformers.AutoModelForSequenceClassification, dict(num_labels=n_class, use_cache=False)
            shapes = {'random-gpt2': transformers.GPT2Config(vocab_size=50258, pad_token_id=50257, **more)}  # a pad of its own
            shapes['random-bert'] = transformers.BertConfig(**more)
            theirs = make.from_config(shapes[model]) if model in shapes else make.from_pretrained(source, **more)
            their_tokenizer = transformers.AutoTokenizer.from_pretrained(source) if source and dataset != 'synthetic' else None
            ours = twin()
        else:
            own = dict(n_class=n_class, block_size=block_size)
            ours = Transformer.from_pretrained(source, **own) if source else Transformer(Config(vocab_size=8192, **own))
        ours.to(device).train()
    except (ValueError, OSError, ImportError) as e:
        stop(str(e))
    recorded, sizes, answers, seen = Recorded(update) if device.startswith('cuda') else None, split.lengths, {}, []
    optimizers = ours.configure_optimizers(0.01, 5e-5, (0.9, 0.999), sparse=sparse_rows and not recorded)
    batches, warm = itertools.tee(some for e in itertools.count() for some in epoch_batches(split, batch_size, 1, e))
    raw = [tokenizer.decode(test[i]) for i in range(len(test))] if peer and their_tokenizer else []  # with these all begin
    runs = {'train': {'ours': train_ours}, 'prepare': {'ours': lambda: prepare(settings | {'data_dir': tempfile.mkdtemp()})}}
    runs['infer'] = {'ours': lambda: predict(ours, raw and tokenizer.encode_batch(raw) or test, batch_size, ptdtype).argmax(1)}
    if peer:
        best = dict(train_sampling_strategy='group_by_length', bf16=ptdtype == torch.bfloat16)
        runs['train'] |= {'Trainer': train_theirs, 'Trainer, best flags': lambda: train_theirs(**best)}
        runs['infer']['sorted loop'] = lambda: infer_theirs(lambda x, m: net(x, attention_mask=m).logits.float().cpu().numpy())
        if raw:
            runs['infer']['pipeline'], runs['prepare']['datasets.map'] = pipeline(), prepare_theirs
    result = dict(device=device, dtype=str(ptdtype), model=model, data=dataset, batch_size=batch_size, rows=len(split))
    result |= dict(threads=torch.get_num_threads(), torch=torch.__version__, peak_matmul_gflops=round(peak(), 1))
    for kind in sorted(what.split(), key='prepare train infer'.find):
        if kind == 'infer' and peer:  # as training has left them: the answers of a fresh head hang by a hair
            ours, net = twin().to(device), copy.deepcopy(theirs).eval().to(ptdtype)
            if device == 'cpu' and find_spec('onnxruntime') and find_spec('onnx'):
                runs['infer']['ONNX Runtime'] = onnx()
        found = {name: [] for name in runs[kind]}
        for name, run in list(runs[kind].items()) * turns:
            keep_memory(name == 'ours' and kind != 'prepare')  # theirs runs as it would without us
            seen, tick = [], clock()  # of each batch: lengths, cells
            answers[name] = run()
            seconds = answers[name] if kind == 'train' else clock() - tick
            seen = {'train': seen[WARM:][:steps], 'infer': [(test.lengths, 1)], 'prepare': [([0] * n_rows, 1)]}[kind]
            lengths = np.concatenate([x for x, _ in seen])
            flops = (ours.flops_per_token(lengths) * lengths).sum() / 3 * PASSES[kind]
            x = dict(examples_per_s=len(lengths) / seconds, tokens_per_s=float(lengths.sum()) / seconds)
            x |= dict(share_of_peak=float(flops / seconds / 1e9 / result['peak_matmul_gflops']))
            x |= dict(padding=float(1 - lengths.sum() / sum(n for _, n in seen))) if kind == 'train' else {}
            print(f'{kind:8} {name:20} ' + '  '.join(f'{key} {value:,.3f}' for key, value in x.items()), flush=True)
            found[name].append(x)
        median = {name: {key: statistics.median(x[key] for x in some) for key in some[0]} for name, some in found.items()}
        result[kind] = median.pop('ours')
        for name, x in median.items():
            work = 'examples_per_s' if kind == 'prepare' else 'tokens_per_s'
            same = x['same_answers'] = float((answers[name] == answers['ours']).mean()) if kind == 'infer' else None
            x['ratio'] = None if same is not None and same < 0.999 else result[kind][work] / x[work]  # else other work
            print(f'{kind:8} {name:20} ours is {x["ratio"] and round(x["ratio"], 2)} times as fast; same answers {same}')
        result[f'peer_{kind}'] = median
    print(json.dumps(result | {'max_rss_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
