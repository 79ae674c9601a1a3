r"""
How fast are training and inference? They take turns with the alternatives in one process, on the
same rows and with the same weights.

$ python bench.py                      # MiniLM on SST-2: texts per second, share of the peak
$ python bench.py --peer=transformers  # beside transformers
$ python bench.py --peer=transformers --model=random-gpt2 --dataset=customer_service \
    --block_size=256 --batch_size=16
$ python bench.py --what=train --model=scratch --dataset=synthetic --length=512 --rows=1000000

The alternatives: pip install transformers accelerate, and onnx onnxruntime, datasets if wanted.
A speed says something only as a ratio within one run. Training is compared by its real tokens per
second, because each turn draws texts of other lengths.
"""

import copy
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

import prepare
from configurator import configure, stop
from model import Config, Transformer
from nanosentiment.datasets import DATASETS, find_raw
from nanosentiment.device import choose_device
from nanosentiment.fast import GraphStep, keep_memory, predict
from nanosentiment.files import read_json
from nanosentiment.memmaps import Split, epoch_batches, pad_rows
from nanosentiment.pretrained import find
from nanosentiment.tables import read_rows
from nanosentiment.tokenizer import Tokenizer, load_tokenizer
from train import get_batch

# -----------------------------------------------------------------------------
# model
model = 'minilm'  # hub name or folder; random-gpt2, random-bert: that shape; scratch: model.py's
# data
dataset = 'sst2'  # one that prepare.py knows; or synthetic: rows of random tokens, two labels
rows = 20000  # of synthetic; also how many rows of any data set the Trainer is given
length = 32  # of synthetic rows, in tokens
block_size = 128
batch_size = 32
# measurement
what = 'train infer'  # any of prepare, train, infer
peer = ''  # transformers: Trainer, pipeline, plain forward; ONNX Runtime and datasets if installed
turns = 3  # ours, theirs, ours, theirs, ...; the median counts
steps = 64  # per turn of training; as many as are sorted by length at once, so that turns are alike
# system
device = 'auto'
dtype = 'auto'
# -----------------------------------------------------------------------------

# the kinds of measurement, and what they cost in forward passes; a backward pass costs two
FORWARD_PASSES = {'prepare': 0, 'train': 3, 'infer': 1}
WARMUP_STEPS = 8
# the tokenizer for the models that come without one
TOKENIZERS = {'random-gpt2': 'gpt2', 'random-bert': 'bpe16384', 'scratch': 'bpe8192'}


@dataclass
class Data:
    """The rows that all turns share."""

    settings: dict  # of prepare.py
    train: Split  # or Synthetic
    test: Split
    n_class: int
    n_rows: int  # of all splits
    tokenizer: Tokenizer | None  # ours; synthetic rows have none


@dataclass
class Setup:
    """What all turns share. The peer's model and tokenizer are those of transformers, if any."""

    device: str
    dtype: torch.dtype
    data: Data
    model: Transformer
    peer_model: torch.nn.Module | None = None
    peer_tokenizer: Callable | None = None
    test_texts: list | None = None  # data.test decoded, if inference begins with texts, not tokens


@dataclass
class Turn:
    """What one turn did."""

    seconds: float
    lengths: np.ndarray  # (n,) tokens of each text
    n_cells: int = 0  # of all batches, padding included; counted in training only
    answers: np.ndarray | None = None  # (n,) predicted labels, of inference only


class Synthetic:
    """A split without files: n rows of random tokens, all of one length, with two labels."""

    def __init__(self, n, length):
        rng = np.random.default_rng(0)
        # rows overlap, so that a million of them take the memory of one long row
        self.tokens = rng.integers(5, 2000, length + n, np.uint16)
        self.labels = rng.integers(0, 2, n, np.uint16)
        self.offsets = np.arange(n + 1) * length  # epoch_batches reads the lengths from them
        self.lengths = np.full(n, length)
        self.block_size = length

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.tokens[i : i + self.block_size]


# -----------------------------------------------------------------------------
# the clock, and the peak that speeds are shares of


def seconds_now(device):
    """The time in seconds, once the device has finished what it was given."""
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(device, function, *args):
    """What function(*args) returns, and the seconds it took."""
    started = seconds_now(device)
    result = function(*args)
    return result, seconds_now(device) - started


def peak_gflops(device, dtype):
    """GFLOP/s of a square matrix product, the best of eight."""
    n = 8192 if device.startswith('cuda') else 2048
    matrix = torch.randn(n, n, device=device, dtype=dtype)
    seconds = []
    for _ in range(8):
        _, product_seconds = timed(device, torch.matmul, matrix, matrix)
        seconds.append(product_seconds)
    return 2 * n**3 / min(seconds) / 1e9


# -----------------------------------------------------------------------------
# ours


class OurTraining:
    """train.py's step on our model. Each turn goes on where the last one stopped."""

    def __init__(self, setup):
        self.setup = setup
        self.optimizer = setup.model.configure_optimizer(0.01, 5e-5, (0.9, 0.999))
        self.batches = endless_batches(setup.data.train)
        self.warmup_batches = endless_batches(setup.data.train)
        # with CUDA, a step is recorded for each length of batch, as train.py does
        self.is_recorded = setup.device.startswith('cuda')
        self.step = GraphStep(self.train_step) if self.is_recorded else self.train_step

    def train_step(self, idx, lengths, targets):
        """Forward, backward, clipping and update; returns the mean loss."""
        device_type = self.setup.device.split(':')[0]
        dtype = self.setup.dtype
        with torch.autocast(device_type, dtype, enabled=dtype != torch.float32):
            _, losses = self.setup.model(idx, lengths, targets)
            loss = losses.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.setup.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def run_step(self, batch_rows):
        """One step on these rows; returns the number of cells of the batch, padding included."""
        batch = get_batch(
            self.setup.data.train, batch_rows, self.setup.device, few_lengths=self.is_recorded
        )
        self.step(*batch).item()  # train.py looks at each loss, too
        return batch[0].numel()

    def turn(self):
        """The warm-up, then the steps that count; batches are made within the clock."""
        for _ in range(WARMUP_STEPS):
            self.run_step(next(self.warmup_batches))
        split_lengths = self.setup.data.train.lengths
        lengths = []
        n_cells = 0
        started = seconds_now(self.setup.device)
        for _ in range(steps):
            batch_rows = next(self.batches)
            n_cells += self.run_step(batch_rows)
            lengths.append(split_lengths[batch_rows])
        seconds = seconds_now(self.setup.device) - started
        return Turn(seconds, np.concatenate(lengths), n_cells)


def endless_batches(split):
    """The rows of each batch, epoch after epoch."""
    for epoch in itertools.count():
        yield from epoch_batches(split, batch_size, seed=1, epoch=epoch)


def our_answers(setup):
    """The predicted label of each test text, (n,)."""
    texts = setup.data.test
    if setup.test_texts:
        texts = setup.data.tokenizer.encode_batch(setup.test_texts)
    logits = predict(setup.model, texts, batch_size, setup.dtype)
    return logits.argmax(axis=1)


def prepare_ours(setup):
    """prepare.py from the raw files, into a new folder."""
    prepare.prepare(setup.data.settings | {'data_dir': tempfile.mkdtemp()})


# -----------------------------------------------------------------------------
# theirs: transformers, ONNX Runtime, datasets


def pad_batch(texts, pad_id):
    """Token ids of B texts -> idx (B, T) and mask (B, T), int64; T is the longest text's length."""
    idx, lengths = pad_rows(texts)
    mask = np.arange(idx.shape[1]) < lengths[:, None]
    idx[~mask] = pad_id
    return torch.from_numpy(idx), torch.from_numpy(mask.astype(np.int64))


def pad_token_id(peer_model):
    return peer_model.config.pad_token_id or 0


class Collator:
    """The Trainer's data collator: dynamic padding. Remembers the size of each batch."""

    def __init__(self, pad_id):
        self.pad_id = pad_id
        self.lengths = []  # a list for each batch: the tokens of each text
        self.n_cells = []  # of each batch: B * T, padding included

    def __call__(self, texts):
        idx, mask = pad_batch([text['input_ids'] for text in texts], self.pad_id)
        self.lengths.append([len(text['input_ids']) for text in texts])
        self.n_cells.append(idx.numel())
        labels = torch.tensor([text['labels'] for text in texts])
        return {'input_ids': idx, 'attention_mask': mask, 'labels': labels}


def train_theirs(setup, **flags):
    """A Turn of transformers' Trainer on our training rows, in the order that its flags say."""
    import transformers

    last_step = WARMUP_STEPS + steps

    class StepClock(transformers.TrainerCallback):
        def __init__(self):
            self.seconds_at = {}  # step -> the time at its end

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step in (WARMUP_STEPS, last_step):
                self.seconds_at[state.global_step] = seconds_now(setup.device)

    split = setup.data.train
    n_texts = min(len(split), rows)
    texts = []
    for i in range(n_texts):
        texts.append({'input_ids': split[i].tolist(), 'labels': int(split.labels[i])})

    arguments = transformers.TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=batch_size,
        max_steps=last_step,
        use_cpu=setup.device == 'cpu',
        learning_rate=5e-5,
        weight_decay=1e-4,
        save_strategy='no',
        logging_steps=10**6,
        disable_tqdm=True,
        report_to=[],
        **flags,
    )
    # A model that accelerate has once prepared for float32 stays in it, whatever the flags say, so
    # each turn trains a copy.
    peer_model = copy.deepcopy(setup.peer_model)
    collator = Collator(pad_token_id(peer_model))
    clock = StepClock()
    trainer = transformers.Trainer(
        peer_model, arguments, train_dataset=texts, data_collator=collator, callbacks=[clock]
    )
    trainer.train()
    setup.peer_model.load_state_dict(peer_model.state_dict())

    seconds = clock.seconds_at[last_step] - clock.seconds_at[WARMUP_STEPS]
    # the Trainer may have collated a batch more than it has used
    counted = slice(WARMUP_STEPS, last_step)
    lengths = np.concatenate(collator.lengths[counted])
    return Turn(seconds, lengths, sum(collator.n_cells[counted]))


@torch.no_grad()
def sorted_loop(setup, forward):
    """
    The loop that one would write: sorted by length, each batch padded to its longest text.

    forward(idx, mask) returns logits as an array (B, n_class). Returns the predicted labels, (n,).
    """
    texts = setup.data.test
    if setup.test_texts:
        texts = setup.peer_tokenizer(setup.test_texts, truncation=True)['input_ids']
    lengths = [len(texts[i]) for i in range(len(texts))]
    order = np.argsort(lengths, kind='stable')
    answers = np.zeros(len(texts), dtype=int)
    for batch_rows in np.array_split(order, range(batch_size, len(order), batch_size)):
        batch_texts = [texts[i] for i in batch_rows]
        idx, mask = pad_batch(batch_texts, pad_token_id(setup.peer_model))
        logits = forward(idx.to(setup.device), mask.to(setup.device))
        answers[batch_rows] = logits.argmax(axis=1)
    return answers


def plain_forward(setup):
    """A copy of their model in our dtype, as a function for sorted_loop."""
    net = copy.deepcopy(setup.peer_model).eval().to(setup.device, setup.dtype)

    def forward(idx, mask):
        return net(idx, attention_mask=mask).logits.float().cpu().numpy()

    return forward


def onnx_forward(setup):
    """Their model in ONNX Runtime on the CPU, as a function for sorted_loop."""
    import onnxruntime

    path = os.path.join(tempfile.mkdtemp(), 'model.onnx')
    names = ['input_ids', 'attention_mask']
    idx, mask = pad_batch([setup.data.test[0], setup.data.test[1]], pad_token_id(setup.peer_model))
    torch.onnx.export(
        setup.peer_model.eval(),
        (idx, {'attention_mask': mask}),
        path,
        input_names=names,
        output_names=['logits'],
        dynamic_axes={name: {0: 'batch', 1: 'length'} for name in names},
        dynamo=False,
    )
    options = onnxruntime.SessionOptions()
    # by default it takes all cores of the machine, even those that this process may not use
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

    def forward(idx, mask):
        inputs = {'input_ids': idx.numpy(), 'attention_mask': mask.numpy()}
        return session.run(None, inputs)[0]

    return forward


def load_pipeline(setup):
    import transformers

    return transformers.pipeline(
        'text-classification',
        model=setup.peer_model.eval(),
        tokenizer=setup.peer_tokenizer,
        device=setup.device,
    )


def pipeline_answers(setup, pipeline):
    """The predicted label of each test text by transformers' pipeline, (n,)."""
    predictions = pipeline(setup.test_texts, batch_size=batch_size, truncation=True)
    label2id = setup.peer_model.config.label2id
    return np.array([label2id[prediction['label']] for prediction in predictions])


def prepare_theirs(setup):
    """datasets' map with the fast tokenizer over the same texts, kept on the disk as ours are."""
    import datasets

    text_column, _ = DATASETS[dataset]['columns']
    texts = []
    for path in find_raw(dataset, '').values():
        texts += [row[text_column] for _, row, _ in read_rows(path)]
    table = datasets.Dataset.from_dict({'text': texts})

    def tokenize(batch):
        return setup.peer_tokenizer(batch['text'])

    tokenized = table.map(tokenize, batched=True, remove_columns=['text'])
    tokenized.save_to_disk(tempfile.mkdtemp())


# -----------------------------------------------------------------------------
# who takes turns: {name: function without arguments that returns a Turn}, ours first


def contenders(kind, setup):
    if kind == 'prepare':
        return preparation_contenders(setup)
    if kind == 'train':
        return training_contenders(setup)
    return inference_contenders(setup)


def preparation_contenders(setup):
    runs = {'ours': partial(preparation_turn, setup, prepare_ours)}
    if setup.test_texts and find_spec('datasets'):
        runs['datasets.map'] = partial(preparation_turn, setup, prepare_theirs)
    return runs


def preparation_turn(setup, function):
    _, seconds = timed(setup.device, function, setup)
    # rows are counted, tokens are not
    return Turn(seconds, np.zeros(setup.data.n_rows, dtype=np.int64))


def training_contenders(setup):
    runs = {'ours': OurTraining(setup).turn}
    if peer:
        use_bf16 = setup.dtype == torch.bfloat16
        best_flags = {'train_sampling_strategy': 'group_by_length', 'bf16': use_bf16}
        runs['Trainer'] = partial(train_theirs, setup)
        runs['Trainer, best flags'] = partial(train_theirs, setup, **best_flags)
    return runs


def inference_contenders(setup):
    if not peer:
        return {'ours': partial(inference_turn, setup, our_answers)}
    # All take their model as training has left it: the two best labels of a fresh head are so close
    # that rounding decides between them.
    our_model = copy_of_peer(setup.peer_model, setup.data.n_class).to(setup.device)
    setup = replace(setup, model=our_model)
    runs = {
        'ours': partial(inference_turn, setup, our_answers),
        'sorted loop': partial(inference_turn, setup, sorted_loop, plain_forward(setup)),
    }
    if setup.test_texts:
        pipeline = load_pipeline(setup)
        runs['pipeline'] = partial(inference_turn, setup, pipeline_answers, pipeline)
    if setup.device == 'cpu' and find_spec('onnxruntime') and find_spec('onnx'):
        runs['ONNX Runtime'] = partial(inference_turn, setup, sorted_loop, onnx_forward(setup))
    return runs


def inference_turn(setup, function, *args):
    answers, seconds = timed(setup.device, function, setup, *args)
    return Turn(seconds, setup.data.test.lengths, answers=answers)


# -----------------------------------------------------------------------------
# turns, and what follows from them


def take_turns(kind, runs, setup, peak):
    """All turns of one kind -> for each name the median of its figures, and its last answers."""
    figures = {name: [] for name in runs}
    answers = {}
    for _ in range(turns):
        for name, run in runs.items():
            # the alternatives run as they would without us
            keep_memory(name == 'ours' and kind != 'prepare')
            turn = run()
            answers[name] = turn.answers
            figures[name].append(turn_figures(kind, turn, setup.model, peak))
            columns = [f'{key} {value:,.3f}' for key, value in figures[name][-1].items()]
            print(f'{kind:8} {name:20} ' + '  '.join(columns), flush=True)

    medians = {}
    for name, turns_of_name in figures.items():
        medians[name] = {}
        for key in turns_of_name[0]:
            medians[name][key] = statistics.median(turn[key] for turn in turns_of_name)
    return medians, answers


def turn_figures(kind, turn, model, peak):
    """Speeds of one turn; padding is the share of all cells, counted in training only."""
    # flops_per_token counts forward and backward: three forward passes
    forward_flops = model.flops_per_token(turn.lengths) * turn.lengths / 3
    gflops = float(forward_flops.sum()) * FORWARD_PASSES[kind] / 1e9
    n_tokens = int(turn.lengths.sum())
    figures = {
        'examples_per_s': len(turn.lengths) / turn.seconds,
        'tokens_per_s': n_tokens / turn.seconds,
        'share_of_peak': gflops / turn.seconds / peak,
    }
    if kind == 'train':
        figures['padding'] = 1 - n_tokens / turn.n_cells
    return figures


def compare_with_ours(kind, medians, answers):
    """The alternatives' figures, with the share of same answers and the ratio of our speed."""
    ours = medians['ours']
    speed = 'examples_per_s' if kind == 'prepare' else 'tokens_per_s'
    compared = {}
    for name, figures in medians.items():
        if name == 'ours':
            continue
        same_answers = None
        if kind == 'infer':
            same_answers = float((answers[name] == answers['ours']).mean())
        # with other answers it has done other work, and a ratio would say nothing
        ratio, rounded_ratio = None, None
        if same_answers is None or same_answers >= 0.999:
            ratio = ours[speed] / figures[speed]
            rounded_ratio = round(ratio, 2)
        message = f'ours is {rounded_ratio} times as fast; same answers {same_answers}'
        print(f'{kind:8} {name:20} {message}')
        compared[name] = figures | {'same_answers': same_answers, 'ratio': ratio}
    return compared


# -----------------------------------------------------------------------------
# data and models


def check_settings():
    """ValueError where a setting cannot be meant."""
    kinds = what.split()
    for kind in kinds:
        if kind not in FORWARD_PASSES:
            raise ValueError(f'what={kind} is unknown; choose some of {", ".join(FORWARD_PASSES)}')
    if peer not in ('', 'transformers'):
        raise ValueError(f'peer={peer} is unknown; set it to transformers, or leave it out')
    sizes = dict(rows=rows, length=length, batch_size=batch_size, turns=turns, steps=steps)
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f'{name}={value} is too small; set it to 1 or more')
    if 'prepare' in kinds and dataset == 'synthetic':
        raise ValueError('what=prepare needs texts, and dataset=synthetic has none; name another')
    if peer and model == 'scratch':
        raise ValueError('model=scratch has no twin in transformers; try --model=random-bert')


def make_setup():
    """Data and models by the settings. ValueError, OSError or ImportError if one is missing."""
    check_settings()
    chosen_device, chosen_dtype = choose_device(device, dtype)
    source = '' if model in TOKENIZERS else find(model)  # folder of a checkpoint
    data = load_data(source or TOKENIZERS[model])

    # with a peer, or for a random shape, our model gets the weights of theirs
    peer_model, peer_tokenizer, test_texts = None, None, None
    if peer or model.startswith('random'):
        peer_model = load_peer_model(source, data.n_class)
        our_model = copy_of_peer(peer_model, data.n_class)
    elif source:
        our_model = Transformer.from_pretrained(
            source, data.n_class, block_size=data.train.block_size
        )
    else:
        config = Config(vocab_size=8192, n_class=data.n_class, block_size=data.train.block_size)
        our_model = Transformer(config)

    # where they have a tokenizer, all begin inference with the texts
    if peer and source and data.tokenizer is not None:
        import transformers

        peer_tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        test_texts = [data.tokenizer.decode(data.test[i]) for i in range(len(data.test))]

    our_model.to(chosen_device).train()
    return Setup(
        chosen_device, chosen_dtype, data, our_model, peer_model, peer_tokenizer, test_texts
    )


def load_data(tokenizer_name):
    """The splits of the data set, prepared with prepare.py's own defaults."""
    defaults = configure(vars(prepare), argv=[])
    settings = defaults | {'dataset': dataset, 'tokenizer': tokenizer_name}
    if dataset == 'synthetic':
        train, test = Synthetic(rows, length), Synthetic(1000, length)
        return Data(settings, train, test, n_class=2, n_rows=rows, tokenizer=None)
    folder = prepare.prepare(settings)
    train = Split(folder, 'train', block_size, keep='last')
    test = Split(folder, 'test', block_size, keep='last')
    remedy = f'delete {folder} and prepare again'
    tokenizer = load_tokenizer(read_json(f'{folder}/tokenizer_state.json', remedy))
    n_rows = sum(train.meta['rows'].values())
    return Data(settings, train, test, len(train.meta['labels']), n_rows, tokenizer)


def load_peer_model(source, n_class):
    """transformers' model of a checkpoint's folder, or with random weights."""
    import transformers

    auto_model = transformers.AutoModelForSequenceClassification
    options = {'num_labels': n_class, 'use_cache': False}
    if model == 'random-gpt2':
        # one token more than GPT-2 has, for padding
        config = transformers.GPT2Config(vocab_size=50258, pad_token_id=50257, **options)
        return auto_model.from_config(config)
    if model == 'random-bert':
        return auto_model.from_config(transformers.BertConfig(**options))
    return auto_model.from_pretrained(source, **options)


def copy_of_peer(peer_model, n_class):
    """
    Our model with the weights that theirs has now.

    It keeps all positions: a text that is decoded and encoded again may be a token longer.
    """
    folder = tempfile.mkdtemp()
    peer_model.save_pretrained(folder)
    return Transformer.from_pretrained(folder, n_class)


# -----------------------------------------------------------------------------


def main():
    configure(globals())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder  # all that the turns leave behind goes with it
        try:
            setup = make_setup()
        except (ValueError, OSError, ImportError) as error:
            stop(error)
        result = measure(setup)
    max_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(result | {'max_rss_mb': max_rss_mb}))


def measure(setup):
    """All turns of all kinds -> the object of the last line."""
    peak = round(peak_gflops(setup.device, setup.dtype), 1)
    result = {
        'device': setup.device,
        'dtype': str(setup.dtype),
        'model': model,
        'data': dataset,
        'batch_size': batch_size,
        'rows': len(setup.data.train),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'peak_matmul_gflops': peak,
    }
    for kind in FORWARD_PASSES:
        if kind in what.split():
            runs = contenders(kind, setup)
            medians, answers = take_turns(kind, runs, setup, peak)
            result[kind] = medians['ours']
            result[f'peer_{kind}'] = compare_with_ours(kind, medians, answers)
    return result


if __name__ == '__main__':
    main()
