r"""
How fast are training and inference? nanosentiment and its alternatives take turns in one process,
on the same rows and with the same weights. The last line of the output is a JSON object.

$ python bench.py                      # MiniLM on SST-2: texts per second, share of the peak
$ python bench.py --peer=transformers  # beside transformers
$ python bench.py --peer=transformers --model=random-gpt2 --dataset=customer_service \
    --block_size=256 --batch_size=16
$ python bench.py --what=train --model=scratch --dataset=synthetic --length=512 --rows=1000000

The alternatives: pip install transformers accelerate, and onnx onnxruntime, datasets if wanted.
A speed says something only as a ratio within one run. Training is compared by its real tokens per
second, because each turn draws texts of other lengths.

What is unequal by design:
- transformers' pipeline and ONNX Runtime compute in float32, whatever dtype says.
- Training has a warm-up that does not count, inference and preparation have none.
- With CUDA, a batch of a new length records a graph, and that counts as time of the turn.
- The Trainer gets the first `rows` rows of the training split, we draw from all of them.
- max_rss_mb, the peak memory of the process, is of all contenders together.
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
from nanosentiment.hub import find
from nanosentiment.memmaps import Split, epoch_batches, pad_rows
from nanosentiment.tables import Table
from nanosentiment.tokenizer import Tokenizer, load_tokenizer
from train import clip_and_update, forward_backward, get_batch

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
turns = 3  # of each contender, one after the other; the median counts
steps = 64  # per turn of training; 64 batches are sorted by length at once, so turns are alike
# system
device = 'auto'
dtype = 'auto'
# -----------------------------------------------------------------------------

CHOICES = {'peer': ('', 'transformers')}
KINDS = ('prepare', 'train', 'infer')  # of measurement
# the contender that the others are compared with
OWN = 'nanosentiment'
# the tokenizer for the models that come without one
TOKENIZERS = {'random-gpt2': 'gpt2', 'random-bert': 'bpe16384', 'scratch': 'bpe8192'}

# of both training contenders
WARMUP_STEPS = 8
LEARNING_RATE = 5e-5
WEIGHT_DECAY = 0.01

# With fewer equal predictions an alternative has done other work, and a ratio would say nothing.
MIN_AGREEMENT = 0.999

# -----------------------------------------------------------------------------
# checks


def check_settings():
    """ValueError where the settings contradict each other or are out of range."""
    kinds = what.split()
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f'what={kind} is unknown; choose some of {", ".join(KINDS)}')
    if peer not in CHOICES['peer']:
        raise ValueError(f'peer={peer} is unknown; set it to transformers, or leave it out')
    sizes = dict(rows=rows, length=length, batch_size=batch_size, turns=turns, steps=steps)
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f'{name}={value} is too small; set it to 1 or more')
    if 'prepare' in kinds and dataset == 'synthetic':
        raise ValueError('what=prepare needs texts, and dataset=synthetic has none; name another')
    if peer and model == 'scratch':
        raise ValueError('model=scratch has no twin in transformers; try --model=random-bert')
    if peer and model == 'gpt2':
        # before it is downloaded
        refuse_without_padding()


def check_padding(source):
    """ValueError if transformers cannot pad the batches of the checkpoint in this folder."""
    import transformers

    if transformers.AutoConfig.from_pretrained(source).pad_token_id is None:
        refuse_without_padding()


def refuse_without_padding():
    reason = f'model={model} has no pad token, so transformers takes no batches of it'
    raise ValueError(f'{reason}; try --model=random-gpt2')


# -----------------------------------------------------------------------------
# data


class Synthetic:
    """A split without files: n rows of random tokens, all of one length, with two labels."""

    def __init__(self, n, length):
        rng = np.random.default_rng(0)
        # rows overlap, so that a million of them take the memory of one long row
        self.tokens = rng.integers(5, 2000, length + n, np.uint16)
        self.labels = rng.integers(0, 2, n, np.uint16)
        # Nothing reads tokens by these offsets. epoch_batches takes the lengths from them.
        self.offsets = np.arange(n + 1) * length
        self.lengths = np.diff(self.offsets)
        self.block_size = length

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.tokens[i : i + self.block_size]


@dataclass
class Data:
    """The rows that all turns share. Synthetic ones have no tokenizer."""

    settings: dict  # of prepare.py
    train: Split | Synthetic
    test: Split | Synthetic
    n_class: int
    n_rows: int  # of all splits
    tokenizer: Tokenizer | None = None


def load_data(tokenizer_name):
    """The splits of the data set, prepared with prepare.py's own defaults."""
    defaults = configure(vars(prepare), argv=[])
    settings = defaults | {'dataset': dataset, 'tokenizer': tokenizer_name}
    if dataset == 'synthetic':
        return Data(
            settings=settings,
            train=Synthetic(rows, length),
            test=Synthetic(1000, length),
            n_class=2,
            n_rows=rows,
        )
    folder = prepare.prepare(settings)
    train = Split(folder, 'train', block_size, settings['keep'])
    test = Split(folder, 'test', block_size, settings['keep'])
    remedy = f'delete {folder} and prepare again'
    tokenizer_state = read_json(f'{folder}/tokenizer_state.json', remedy)
    return Data(
        settings=settings,
        train=train,
        test=test,
        n_class=len(train.meta['labels']),
        n_rows=sum(train.meta['rows'].values()),
        tokenizer=load_tokenizer(tokenizer_state),
    )


# -----------------------------------------------------------------------------
# models


@dataclass
class Setup:
    """
    What all turns share.

    hf_model and hf_tokenizer are those of transformers, if there is a peer. test_texts are set
    where both sides have a tokenizer; inference then begins with them instead of the tokens.
    """

    device: str
    dtype: torch.dtype
    data: Data
    model: Transformer
    hf_model: torch.nn.Module | None = None
    hf_tokenizer: Callable | None = None
    test_texts: list[str] | None = None  # data.test decoded


def load_setup():
    """Data and models by the settings. ValueError, OSError or ImportError if one is missing."""
    torch_device, torch_dtype = choose_device(device, dtype)
    source = ''  # folder of a checkpoint
    if model not in TOKENIZERS:
        source = find(model)
        if peer:
            check_padding(source)
    data = load_data(source or TOKENIZERS[model])

    # with a peer, or for a random shape, our model gets the weights of transformers' model
    hf_model = None
    if peer or model.startswith('random'):
        hf_model = load_hf_model(source, data.n_class)
        own_model = copy_hf_model(hf_model, data.n_class)
    elif source:
        own_model = Transformer.from_pretrained(
            source, data.n_class, block_size=data.train.block_size
        )
    else:
        config = Config(vocab_size=8192, n_class=data.n_class, block_size=data.train.block_size)
        own_model = Transformer(config)

    # a random shape has no tokenizer of transformers, and synthetic rows have none at all
    hf_tokenizer = None
    test_texts = None
    if peer and source and data.tokenizer is not None:
        import transformers

        hf_tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        test_texts = [data.tokenizer.decode(data.test[i]) for i in range(len(data.test))]

    return Setup(
        device=torch_device,
        dtype=torch_dtype,
        data=data,
        model=own_model.to(torch_device).train(),
        hf_model=hf_model,
        hf_tokenizer=hf_tokenizer,
        test_texts=test_texts,
    )


def load_hf_model(source, n_class):
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


def copy_hf_model(hf_model, n_class):
    """
    Our model with the weights that transformers' model has now.

    It keeps all positions: a text that is decoded and encoded again may be a token longer.
    """
    folder = tempfile.mkdtemp()
    hf_model.save_pretrained(folder)
    return Transformer.from_pretrained(folder, n_class)


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
# contenders of preparation: functions that return nothing


def prepare_dataset(setup):
    """prepare.py from the raw files, into a new folder."""
    prepare.prepare(setup.data.settings | {'data_dir': tempfile.mkdtemp()})


def tokenize_with_datasets(setup):
    """datasets' map with the fast tokenizer over the same texts, saved on the disk as well."""
    import datasets

    text_column, _ = DATASETS[dataset]['columns']
    texts = []
    for path in find_raw(dataset, data_dir='').values():
        for _, row, reason in Table(path):
            if not reason:
                texts.append(row[text_column])
    table = datasets.Dataset.from_dict({'text': texts})

    def tokenize(batch):
        return setup.hf_tokenizer(batch['text'])

    tokenized = table.map(tokenize, batched=True, remove_columns=['text'])
    tokenized.save_to_disk(tempfile.mkdtemp())


def preparation_contenders(setup):
    """{name: function of no arguments}; the first is ours."""
    contenders = {OWN: partial(prepare_dataset, setup)}
    if not peer:
        return contenders
    if setup.hf_tokenizer is None:
        print_left_out('prepare', 'datasets.map', f'model={model} has no tokenizer of transformers')
    elif not find_spec('datasets'):
        print_left_out('prepare', 'datasets.map', 'datasets is not installed')
    else:
        contenders['datasets.map'] = partial(tokenize_with_datasets, setup)
    return contenders


def print_left_out(kind, name, reason):
    print(f'{kind:8} {name:20} left out: {reason}')


# -----------------------------------------------------------------------------
# contenders of training: functions that return a TrainingTurn


@dataclass
class TrainingTurn:
    """The steps of one turn that count. The warm-up is left out, so a turn has its own clock."""

    seconds: float
    lengths: np.ndarray  # (n,) tokens of each text
    n_cells: int  # of all batches, padding included


class Training:
    """train.py's step on our model. Each turn goes on where the last one stopped."""

    def __init__(self, setup):
        self.setup = setup
        self.optimizer = setup.model.configure_optimizer(
            weight_decay=WEIGHT_DECAY, learning_rate=LEARNING_RATE, betas=(0.9, 0.999)
        )
        device_type = setup.device.split(':')[0]
        use_autocast = setup.dtype != torch.float32
        self.autocast = torch.autocast(device_type, setup.dtype, enabled=use_autocast)
        self.scaler = torch.amp.GradScaler(device_type, enabled=False)

        # The warm-up draws from an iterator of its own. So the counted steps of a turn are, with
        # 64 of them, just the batches that were sorted by length together.
        self.batches = endless_batches(setup.data.train)
        self.warmup_batches = endless_batches(setup.data.train)

        # with CUDA, a step is recorded for each length of batch, as train.py does
        self.use_graphs = device_type == 'cuda'
        self.step = self.train_step
        if self.use_graphs:
            self.step = GraphStep(self.train_step)

    def train_step(self, idx, lengths, targets):
        """Forward, backward, clipping and update; returns the mean loss."""
        batch = (idx, lengths, targets)
        loss = forward_backward(
            self.setup.model,
            batch,
            objective={},
            n_texts=len(targets),
            autocast=self.autocast,
            scaler=self.scaler,
        )
        clip_and_update(self.setup.model, self.optimizer, self.scaler)
        return loss

    def run_step(self, batch_rows):
        """One step on these rows; returns the number of cells of the batch, padding included."""
        idx, lengths, targets = get_batch(
            self.setup.data.train, batch_rows, self.setup.device, few_lengths=self.use_graphs
        )
        loss = self.step(idx, lengths, targets)
        loss.item()  # train.py looks at each loss, too, for which it waits
        return idx.numel()

    def take_turn(self):
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
        return TrainingTurn(seconds=seconds, lengths=np.concatenate(lengths), n_cells=n_cells)


def endless_batches(split):
    """The rows of each batch, epoch after epoch."""
    for epoch in itertools.count():
        yield from epoch_batches(split, batch_size, seed=1, epoch=epoch)


def pad_batch(texts, pad_id):
    """Token ids of B texts -> idx (B, T) and mask (B, T), int64; T is the longest text's length."""
    idx, lengths = pad_rows(texts)
    mask = np.arange(idx.shape[1]) < lengths[:, None]
    idx[~mask] = pad_id
    return torch.from_numpy(idx), torch.from_numpy(mask.astype(np.int64))


class Collator:
    """The Trainer's data collator: dynamic padding. Remembers the size of each batch."""

    def __init__(self, pad_id):
        self.pad_id = pad_id
        self.lengths = []  # a list for each batch: the tokens of each text
        self.n_cells = []  # of each batch: B * T, padding included

    def __call__(self, examples):
        texts = [example['input_ids'] for example in examples]
        labels = [example['labels'] for example in examples]
        idx, mask = pad_batch(texts, self.pad_id)
        self.lengths.append([len(ids) for ids in texts])
        self.n_cells.append(idx.numel())
        return {'input_ids': idx, 'attention_mask': mask, 'labels': torch.tensor(labels)}


def train_with_trainer(setup, **flags):
    """A turn of transformers' Trainer on our training rows, in the order that its flags say."""
    import transformers

    last_step = WARMUP_STEPS + steps

    class StepClock(transformers.TrainerCallback):
        def __init__(self):
            self.seconds_at = {}  # step -> the time at its end

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step in (WARMUP_STEPS, last_step):
                self.seconds_at[state.global_step] = seconds_now(setup.device)

    split = setup.data.train
    examples = []
    for i in range(min(len(split), rows)):
        examples.append({'input_ids': split[i].tolist(), 'labels': int(split.labels[i])})

    arguments = transformers.TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=batch_size,
        max_steps=last_step,
        use_cpu=setup.device == 'cpu',
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        save_strategy='no',
        logging_steps=10**6,
        disable_tqdm=True,
        report_to=[],
        **flags,
    )
    # A model that accelerate has once prepared for float32 stays in it, whatever the flags say, so
    # each turn trains a copy.
    hf_model = copy.deepcopy(setup.hf_model)
    collator = Collator(hf_model.config.pad_token_id)
    clock = StepClock()
    trainer = transformers.Trainer(
        hf_model, arguments, train_dataset=examples, data_collator=collator, callbacks=[clock]
    )
    trainer.train()
    setup.hf_model.load_state_dict(hf_model.state_dict())

    # the Trainer may have collated a batch more than it has used
    counted = slice(WARMUP_STEPS, last_step)
    return TrainingTurn(
        seconds=clock.seconds_at[last_step] - clock.seconds_at[WARMUP_STEPS],
        lengths=np.concatenate(collator.lengths[counted]),
        n_cells=sum(collator.n_cells[counted]),
    )


def training_contenders(setup):
    """{name: function of no arguments}; the first is ours."""
    contenders = {OWN: Training(setup).take_turn}
    if peer:
        contenders['Trainer'] = partial(train_with_trainer, setup)
        contenders['Trainer, best flags'] = partial(
            train_with_trainer,
            setup,
            # so named in transformers 5, the version that requirements-dev.txt has
            train_sampling_strategy='group_by_length',
            bf16=setup.dtype == torch.bfloat16,
        )
    return contenders


# -----------------------------------------------------------------------------
# contenders of inference: functions that return the predicted label of each test text, (n,)


def predict_labels(setup):
    """Our predictions, from texts if both sides have a tokenizer."""
    texts = setup.data.test
    if setup.test_texts:
        texts = setup.data.tokenizer.encode_batch(setup.test_texts)
    logits = predict(setup.model, texts, batch_size, setup.dtype)
    return logits.argmax(axis=1)


@torch.no_grad()
def predict_sorted(setup, forward):
    """
    The loop that one would write: sorted by length, each batch padded to its longest text.

    forward(idx, mask) takes tensors (B, T) and returns logits as an array (B, n_class).
    """
    texts = setup.data.test
    if setup.test_texts:
        texts = setup.hf_tokenizer(setup.test_texts, truncation=True)['input_ids']
    lengths = [len(texts[i]) for i in range(len(texts))]
    order = np.argsort(lengths, kind='stable')
    predictions = np.zeros(len(texts), dtype=int)
    for start in range(0, len(order), batch_size):
        batch_rows = order[start : start + batch_size]
        batch_texts = [texts[i] for i in batch_rows]
        idx, mask = pad_batch(batch_texts, setup.hf_model.config.pad_token_id)
        logits = forward(idx.to(setup.device), mask.to(setup.device))
        predictions[batch_rows] = logits.argmax(axis=1)
    return predictions


def plain_forward(setup):
    """A copy of transformers' model in our dtype, as a function for predict_sorted."""
    hf_model = copy.deepcopy(setup.hf_model).eval().to(setup.device, setup.dtype)

    def forward(idx, mask):
        return hf_model(idx, attention_mask=mask).logits.float().cpu().numpy()

    return forward


def onnx_forward(setup):
    """transformers' model in ONNX Runtime, float32 on the CPU, as a function for predict_sorted."""
    import onnxruntime

    path = os.path.join(tempfile.mkdtemp(), 'model.onnx')
    names = ['input_ids', 'attention_mask']
    # any batch will do, because its size and length are declared as variable
    example_texts = [setup.data.test[0], setup.data.test[1]]
    idx, mask = pad_batch(example_texts, setup.hf_model.config.pad_token_id)
    torch.onnx.export(
        setup.hf_model.eval(),
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
        model=setup.hf_model.eval(),
        tokenizer=setup.hf_tokenizer,
        device=setup.device,
    )


def predict_with_pipeline(setup, pipeline):
    """The predictions of transformers' pipeline, which computes in float32."""
    outputs = pipeline(setup.test_texts, batch_size=batch_size, truncation=True)
    label2id = setup.hf_model.config.label2id
    return np.array([label2id[output['label']] for output in outputs])


def inference_contenders(setup):
    """{name: function of no arguments}; the first is ours."""
    if not peer:
        return {OWN: partial(predict_labels, setup)}

    # All take transformers' model as training has left it: the two best labels of a fresh head are
    # so close that rounding decides between them.
    own_model = copy_hf_model(setup.hf_model, setup.data.n_class).to(setup.device)
    setup = replace(setup, model=own_model)
    contenders = {
        OWN: partial(predict_labels, setup),
        'sorted loop': partial(predict_sorted, setup, plain_forward(setup)),
    }
    if setup.test_texts is None:
        print_left_out('infer', 'pipeline', 'it needs texts and a tokenizer of transformers')
    else:
        contenders['pipeline'] = partial(predict_with_pipeline, setup, load_pipeline(setup))
    if setup.device != 'cpu':
        print_left_out('infer', 'ONNX Runtime', 'it is compared on a CPU only')
    elif not (find_spec('onnxruntime') and find_spec('onnx')):
        print_left_out('infer', 'ONNX Runtime', 'onnx or onnxruntime is not installed')
    else:
        contenders['ONNX Runtime'] = partial(predict_sorted, setup, onnx_forward(setup))
    return contenders


# -----------------------------------------------------------------------------
# turns


def take_turns(kind, setup, peak):
    """
    All turns of one kind -> for each contender the medians of its figures, {name: {figure: value}},
    and its last predictions, {name: (n,)} or None if it predicts nothing.
    """
    if kind == 'prepare':
        contenders = preparation_contenders(setup)
    elif kind == 'train':
        contenders = training_contenders(setup)
    else:
        contenders = inference_contenders(setup)

    figures = {name: [] for name in contenders}
    predictions = dict.fromkeys(contenders)
    for _ in range(turns):
        for name, contender in contenders.items():
            # Only our training and inference keep freed memory, as train.py and predict do it. The
            # alternatives run as they would without us, and the threads of the tokenizer in
            # prepare.py are slower when they share one heap.
            keep_memory(name == OWN and kind != 'prepare')

            result, seconds = timed(setup.device, contender)
            if kind == 'prepare':
                turn_figures = preparation_figures(seconds, setup.data.n_rows)
            elif kind == 'train':
                turn_figures = training_figures(result, setup.model, peak)
            else:
                predictions[name] = result
                lengths = setup.data.test.lengths
                turn_figures = inference_figures(seconds, lengths, setup.model, peak)
            figures[name].append(turn_figures)

            columns = [f'{key} {value:,.3f}' for key, value in turn_figures.items()]
            print(f'{kind:8} {name:20} ' + '  '.join(columns), flush=True)

    medians = {}
    for name, figures_of_turns in figures.items():
        medians[name] = {}
        for key in figures_of_turns[0]:
            medians[name][key] = statistics.median(turn[key] for turn in figures_of_turns)
    return medians, predictions


def preparation_figures(seconds, n_rows):
    return {'examples_per_s': n_rows / seconds}


def training_figures(turn, model, peak):
    """The speeds of a TrainingTurn, and the share of all cells that is padding."""
    # flops_per_token counts forward and backward
    flops = float((model.flops_per_token(turn.lengths) * turn.lengths).sum())
    n_tokens = int(turn.lengths.sum())
    return {
        'examples_per_s': len(turn.lengths) / turn.seconds,
        'tokens_per_s': n_tokens / turn.seconds,
        'share_of_peak': flops / 1e9 / turn.seconds / peak,
        'padding': 1 - n_tokens / turn.n_cells,
    }


def inference_figures(seconds, lengths, model, peak):
    """The speeds of a turn of inference; lengths (n,) in tokens."""
    # the forward pass is a third of what flops_per_token counts, because a backward pass costs two
    flops = float((model.flops_per_token(lengths) * lengths).sum()) / 3
    return {
        'examples_per_s': len(lengths) / seconds,
        'tokens_per_s': int(lengths.sum()) / seconds,
        'share_of_peak': flops / 1e9 / seconds / peak,
    }


def compare_with_own(kind, medians, predictions):
    """
    The figures of the alternatives, each with 'same_answers', the share of predictions that are
    the same as ours, and 'ratio', our speed over theirs. Both may be None.
    """
    # preparation counts rows only
    speed = 'examples_per_s' if kind == 'prepare' else 'tokens_per_s'
    compared = {}
    for name, figures in medians.items():
        if name == OWN:
            continue
        agreement = None
        sentence = ''
        if kind == 'infer':
            agreement = float((predictions[name] == predictions[OWN]).mean())
            sentence = f' {agreement:.2%} of the predictions are the same.'

        ratio = None
        if agreement is None or agreement >= MIN_AGREEMENT:
            ratio = medians[OWN][speed] / figures[speed]
            print(f'{kind:8} {name:20} {OWN} is {ratio:.2f} times as fast.{sentence}')
        else:
            print(f'{kind:8} {name:20} The speeds are not compared.{sentence}')
        compared[name] = figures | {'same_answers': agreement, 'ratio': ratio}
    return compared


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
    for kind in KINDS:
        if kind in what.split():
            medians, predictions = take_turns(kind, setup, peak)
            result[kind] = medians[OWN]
            result[f'peer_{kind}'] = compare_with_own(kind, medians, predictions)
    return result


# -----------------------------------------------------------------------------
# the program


def main():
    configure(globals())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # so that mkdtemp makes its folders in this one, which is removed at the end
        tempfile.tempdir = folder
        try:
            check_settings()
            setup = load_setup()
        except (ValueError, OSError, ImportError) as error:
            stop(error)
        result = measure(setup)
    max_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(result | {'max_rss_mb': max_rss_mb}))


if __name__ == '__main__':
    main()
