"""
A training run as a file: saved, opened, resumed, trained on from, and used through Classifier.

best.pt and last.pt are dicts of tensors and plain values, which torch.load opens with
weights_only=True. They hold all that is needed to classify a text in the way of the training:

    model        the weights, by name
    config       the fields of model.Config
    settings     all settings of the run
    labels       the names of the labels, in the order of the logits; [] of a language model
    dataset      the name of the data set
    tokenizer    Tokenizer.state()
    recipe       how the data was prepared: columns, cleaning, splits, checksums
    command      what was typed
    versions     of Python, torch and numpy
    git          the commit of this project
    best, metrics    only in best.pt: the scores that are shown, and all validation scores
    temperature      only in best.pt: what to divide the logits by, fitted on validation
    run              only in last.pt: the state of the loop; with it optimizer and scaler
"""

import functools
import os
import platform
import subprocess
import sys

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from model import Config, Transformer
from nanosentiment import fast, memmaps, metrics, pretrained
from nanosentiment.checks import CHECKPOINT, check_checkpoint, check_run
from nanosentiment.cleaning import STEPS, clean
from nanosentiment.device import choose_device
from nanosentiment.files import cannot_be_written, check_fields, check_zip, open_whole
from nanosentiment.pairs import join_pair
from nanosentiment.tokenizer import get_tokenizer, load_tokenizer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESUME = 'make room, then go on with --init_from=resume'
TRAIN_AGAIN = 'train again, or name another --out_dir'


# -----------------------------------------------------------------------------
# save and open


def save_checkpoint(path, checkpoint):
    """
    Writes a checkpoint whole or not at all, with the versions and the git commit that made it.

    ValueError if it cannot be written, for instance because the disk is full; an older file of
    that name is then as it was.
    """
    versions = {
        'python': platform.python_version(),
        'torch': str(torch.__version__),  # a TorchVersion would not load with weights_only
        'numpy': np.__version__,
    }
    checkpoint = checkpoint | {'versions': versions, 'git': git_commit()}
    try:
        with open_whole(path, 'wb', RESUME) as f:
            torch.save(checkpoint, f)
    except RuntimeError as error:  # torch's own, when a disk is full
        raise cannot_be_written(path, str(error).splitlines()[0], RESUME) from None


@functools.cache
def git_commit():
    """The commit of this project when it was first asked for, or '' where there is no git."""
    try:
        command = ['git', 'rev-parse', 'HEAD']
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ''
    return result.stdout.strip()


def load_pt(path, remedy):
    """
    A .pt file of this project -> the dict. ValueError with the remedy if it is damaged, of another
    program or of another version, or if check_checkpoint finds that it cannot be used.
    """
    try:
        check_zip(path)
        # weights_only=True, so that a malicious file cannot run code
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # pickle, zip and torch raise whatever a damaged file leads to
        raise ValueError(
            f'{path} cannot be opened: {pretrained.describe_error(error)}; {remedy}'
        ) from None
    if not isinstance(checkpoint, dict) or not CHECKPOINT.keys() <= checkpoint.keys():
        what = f'{path} is no checkpoint of this project, such as one of nanoGPT'
        raise ValueError(f'{what}; name the best.pt of a run of train.py')
    try:
        check_checkpoint(checkpoint, Config)
    except Exception as error:  # what somebody has put into it may lead to any of them
        raise cannot_be_used(path, error, remedy) from None
    return checkpoint


def cannot_be_used(path, error, remedy=TRAIN_AGAIN):
    """The ValueError for a checkpoint that can be opened, but holds what led to another error."""
    return ValueError(f'{path} cannot be used: {pretrained.describe_error(error)}; {remedy}')


def checkpoint_file(path):
    """A .pt file, or a folder that holds a best.pt -> the file. ValueError if there is none."""
    if os.path.isdir(path):
        folder = path
        path = os.path.join(path, 'best.pt')
        if not os.path.exists(path):
            found = pretrained.describe_other_files(folder)
            raise ValueError(found or f'{folder} holds no best.pt; name the folder of a run')
    if not os.path.exists(path):
        raise ValueError(f'there is no run {path}; is the name right?')
    return path


def read_checkpoint(path):
    """
    A .pt file, or a folder that holds a best.pt -> the dict.

    ValueError if the file is missing, damaged, of another program or of another version.
    """
    return load_pt(checkpoint_file(path), TRAIN_AGAIN)


class WithoutRandomWeights(TorchFunctionMode):
    """Inside `with WithoutRandomWeights():` a new layer's parameters are left as they are."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return kwargs['tensor']
        return func(*args, **(kwargs or {}))


def build_model(path, checkpoint):
    """The model of a checkpoint that load_pt has read. ValueError if a weight does not fit."""
    try:
        # Without memory, and so without the random weights of a new model, which would take longer
        # than all else: 1.3 s for MPNet. The weights of the file take their place. To draw
        # them on the device 'meta' torch would also import its compiler, which takes 1.4 s.
        with torch.device('meta'), WithoutRandomWeights():
            model = Transformer(Config(**checkpoint['config']))
        weights = {name: weight.float() for name, weight in checkpoint['model'].items()}
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:  # a weight is missing or of another shape
        raise cannot_be_used(path, error) from None
    return model


def open_checkpoint(path):
    """
    A .pt file, or a folder that holds a best.pt -> model in eval mode, tokenizer, the dict.

    ValueError if the file is missing, damaged or of another version.
    """
    path = checkpoint_file(path)
    checkpoint = load_pt(path, TRAIN_AGAIN)
    model = build_model(path, checkpoint)
    tokenizer_state = checkpoint['tokenizer']
    try:
        tokenizer = load_tokenizer(tokenizer_state)
    except Exception as error:
        if tokenizer_state['kind'] == 'json' and isinstance(error, ValueError):
            raise  # the package tokenizers is missing, and the message says so
        reason = pretrained.describe_error(error)
        raise cannot_be_used(path, ValueError(f'its tokenizer: {reason}')) from None
    if tokenizer.n_vocab > model.config.vocab_size:
        sizes = f'it knows {model.config.vocab_size} tokens, its tokenizer {tokenizer.n_vocab}'
        raise cannot_be_used(path, ValueError(sizes))
    return model.eval(), tokenizer, checkpoint


def is_run(path):
    """Is this a checkpoint of this project, or a folder that holds one?"""
    return path.endswith('.pt') or os.path.exists(os.path.join(path, 'best.pt'))


# -----------------------------------------------------------------------------
# a classifier of transformers


def open_pretrained_classifier(folder):
    """
    A folder with a classifier in Hugging Face's format -> model, tokenizer, and the part of a
    checkpoint's dict that there is.

    Texts are neither cleaned nor cut in another way than transformers does it, so that the answers
    are the same. But a folder that export.py wrote says in its config.json how the run read texts.
    ValueError if the folder's model does not classify texts.
    """
    labels = pretrained.classifier_labels(folder)
    tokenizer = get_tokenizer(os.path.abspath(folder))  # 'gpt2' alone is a name of its own
    limit, keep = pretrained.truncation_of(folder)
    settings = {'block_size': limit}
    if tokenizer.pair_sep >= 0:
        settings['pair_sep'] = tokenizer.pair_sep
    model = Transformer.from_pretrained(folder, len(labels), labels, **settings)
    pretrained.check_tokens(folder, tokenizer.state(), tokenizer.n_vocab, model.config.vocab_size)
    assert model.loaded['fresh'] == [], 'random weights would give random labels'

    # what a run knows of its data, and this folder does not
    recipe = {'columns': ['', ''], 'label_names': pretrained.other_label_names(labels)}
    if tokenizer.pair_ids:
        recipe['text_pair_column'] = ''  # there may be pairs, in a column that the user names
    info = pretrained.exported_info(folder)
    if info:
        recipe |= info['cleaning']
    else:
        recipe['uncleaned'] = True
    checkpoint = {
        'labels': labels,
        'dataset': folder,
        'settings': {'dtype': 'float32', 'keep': info.get('keep', keep)},
        'recipe': recipe,
        'temperature': info.get('temperature', 1.0),
    }
    return model.eval(), tokenizer, checkpoint


# -----------------------------------------------------------------------------
# resume


def resume_checkpoint(path, config, defaults, changeable):
    """
    Opens last.pt to train on -> the checkpoint, and the settings to go on with.

    Those are the settings of the checkpoint. What the user has set anew counts for the names in
    changeable; a value on the command line counts as set anew even if it is the default.
    ValueError if there is no such file, if it is damaged or of another version, or if the user
    wants another value for a setting that is not changeable.
    """
    if not os.path.exists(path):
        remedy = 'leave out --init_from=resume to train from the start'
        raise ValueError(f'there is no {path}; {remedy}')
    checkpoint = load_pt(path, 'remove it and train again')
    if 'run' not in checkpoint or checkpoint['settings'].keys() != config.keys():
        what = f'{path} is of another version of train.py, which has other settings'
        raise ValueError(f'{what}; go on with that, or train again')
    check_resumable(path, checkpoint, defaults)

    settings = dict(checkpoint['settings'])
    on_command_line = {arg.partition('=')[0].removeprefix('--') for arg in sys.argv[1:]}
    for name, value in config.items():
        if name == 'init_from':  # 'resume' itself; the run keeps what it began with
            continue
        if name == 'out_dir':  # the folder may have been moved
            settings[name] = value
            continue
        is_new = name in on_command_line or value != defaults[name]
        if not is_new:
            continue
        if name in changeable:
            settings[name] = value
        elif value not in (settings[name], 'auto'):  # 'auto' leaves the choice to the earlier run
            what = f'{path} has {name}={settings[name]}, not {value}'
            raise ValueError(f'{what}; leave {name} out or choose another out_dir')
    return checkpoint, settings


def check_resumable(path, checkpoint, defaults):
    """ValueError unless a last.pt has the state of the loop, and settings of the right types."""
    try:
        types = {name: type(defaults[name]) for name in checkpoint['settings']}
        check_fields(checkpoint['settings'], types, {}, 'its settings')
        check_fields(checkpoint, {'optimizer': dict, 'scaler': dict, 'command': str}, {}, 'it')
        check_run(checkpoint['run'])
    except ValueError as error:
        raise cannot_be_used(path, error, 'remove it and train again') from None


def check_same_data(checkpoint, meta, path, folder):
    """ValueError if a prepared folder holds other data than the run at `path` was trained on."""
    tokenizer_is_known = meta['tokenizer']['n_vocab'] <= checkpoint['config']['vocab_size']
    same_recipe = checkpoint['recipe'] == meta['recipe']
    if not same_recipe or checkpoint['labels'] != meta['labels'] or not tokenizer_is_known:
        what = f'{path} was trained on other data than {folder} now holds'
        raise ValueError(f'{what}; bring it back, or train in another out_dir')


# -----------------------------------------------------------------------------
# train on from a run


def carried_tokenizer(checkpoint):
    """
    The tokenizer of a run if it was given to it, or None if the run learned it from its own texts.

    A given one may be that of another run, to which the settings do not lead back. The recipe tells
    the two apart: it has the checksum of the vocabulary before anything was learned.
    """
    tokenizer = load_tokenizer(checkpoint['tokenizer'])
    _, sha256 = checkpoint['recipe']['tokenizer']
    return tokenizer if tokenizer.sha256 == sha256 else None


def check_start(path, checkpoint, out_dir, tokenizer):
    """
    ValueError if a new run cannot begin from the run at `path`: if it would be written over, or if
    the new one is set to another tokenizer. The weights know only the run's own tokens.
    """
    folder = path
    if path.endswith('.pt'):
        folder = os.path.dirname(path)
    if os.path.realpath(folder) == os.path.realpath(out_dir):
        what = f'out_dir={out_dir} holds the run that init_from names, and would be written over'
        raise ValueError(f'{what}; name another --out_dir')
    name = checkpoint['tokenizer']['name']
    if tokenizer not in ('auto', name):
        what = f'tokenizer={tokenizer}, but the weights of {path} know the tokens of {name}'
        raise ValueError(f'{what}; set --tokenizer=auto')


def model_of_run(path, checkpoint, n_class, labels, settings):
    """
    A model with the weights of the run at `path`. Its head comes along if the labels are the same,
    put into their order; else it starts fresh, or is left out of a language model (n_class=0).

    labels: of the new run. settings: fields of Config; the sizes are the run's and can only be
    repeated. model.loaded['notes'] tells what was taken. ValueError for a setting that the run
    decides, or a block_size above the run's.
    """
    fields = checkpoint['config']
    refused = []
    for name, value in settings.items():
        if name not in pretrained.USER_SETTINGS and value != fields[name]:
            refused.append(f'{name}={value}')
    if refused:
        what = f'{", ".join(refused)} cannot be set, because {path} decides it'
        raise ValueError(f'{what}; leave it out')
    limit = fields['block_size']
    if settings.get('block_size', limit) > limit:
        what = f'block_size {settings["block_size"]} is more than the {limit} positions of {path}'
        raise ValueError(f'{what}; set it to {limit} or less')

    model = Transformer(Config(**fields | settings | {'n_class': n_class}))
    state = dict(checkpoint['model'])
    notes = []
    n_positions = len(model.wpe.weight)
    if n_positions < len(state['wpe.weight']):
        notes.append(f'positions cropped from {limit} to {model.config.block_size}')
        state['wpe.weight'] = state['wpe.weight'][:n_positions]

    head_weight = state.pop('head.weight', None)
    head_bias = state.pop('head.bias', None)
    run_labels = checkpoint['labels']
    has_same_labels = len(labels) > 0 and set(run_labels) == set(labels)
    if has_same_labels:
        order = [run_labels.index(label) for label in labels]
        state['head.weight'] = head_weight[order]
        state['head.bias'] = head_bias[order]
        notes += pretrained.pooling_notes(fields, settings)
    elif n_class > 0:
        notes.append('starts fresh: head')
    elif head_weight is not None:
        notes.append('not used: head')
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a weight of another shape
        raise cannot_be_used(path, error) from None
    others = [name for name in missing if not name.startswith('head.')] + unexpected
    if others:
        raise cannot_be_used(path, ValueError(f'its weights do not fit, such as {others[0]}'))
    model.loaded = {'notes': notes}
    return model


def cleaning_notes(path, checkpoint, settings):
    """A sentence if a run was trained on texts that were cleaned in another way; else []."""
    recipe = checkpoint['recipe']
    differences = [name for name in STEPS if recipe[name] != settings[name]]
    if not differences:
        return []
    theirs = ', '.join(f'{name}={recipe[name]}' for name in differences)
    return [f'the texts of {path} were cleaned with {theirs}']


# -----------------------------------------------------------------------------
# use


class Classifier:
    """
    A trained run that turns texts into labels and probabilities.

    path is the run's folder or a .pt file, or a folder with a classifier of transformers. All that
    decides how a text is read comes from there: tokenizer, cleaning, labels, block size,
    temperature. device='auto' is the best there is; dtype='auto' is bfloat16 where the hardware
    multiplies it, but float32 if the run was trained in float32. windows=True reads all of a text
    that is longer than block_size, in windows whose logits are averaged.

    A run that was trained with text_pair_column also takes pairs of texts, as tuples. ValueError
    for a tuple if it was not, and for windows if it was.

    >>> classifier = Classifier('out/sentiment_scratch')
    >>> classifier(['It never arrived.'])[0]['label']
    'negative'
    """

    def __init__(self, path, device='auto', dtype='auto', windows=False):
        path = os.fspath(path)
        self.path = path
        if is_run(path) or not os.path.exists(os.path.join(path, 'config.json')):
            self.model, self.tokenizer, self.checkpoint = open_checkpoint(path)
            self.has_pairs = bool(self.checkpoint['recipe'].get('text_pair_column'))
        else:
            self.model, self.tokenizer, self.checkpoint = open_pretrained_classifier(path)
            self.has_pairs = bool(self.tokenizer.pair_ids) and not windows
        self.labels = self.checkpoint['labels']
        if not self.labels:
            raise ValueError(
                f'{path} is a language model, which knows no labels; train a classifier from it: '
                f'python train.py --init_from={path} --dataset=...'
            )
        trained_dtype = self.checkpoint['settings']['dtype']
        self.device, self.dtype = choose_device(device, dtype, trained_dtype)
        self.model = fast.in_dtype(self.model.to(self.device), self.dtype)
        self.temperature = self.checkpoint.get('temperature', 1.0)
        self.block_size = self.model.config.block_size
        self.windows = windows
        self.pair_ids = self.tokenizer.pair_ids if self.has_pairs else []
        if self.has_pairs and windows:
            raise ValueError(f'windows are not made of pairs, as {path} reads; set windows=False')

    def encode(self, texts):
        """Raw texts or pairs -> a list of token id lists, cleaned as in training, not yet cut."""
        cleaned = [clean(self.join(text), self.checkpoint['recipe']) for text in texts]
        return self.tokenizer.encode_batch(cleaned)

    def join(self, text):
        """A text, or a pair as a tuple -> str. ValueError for a tuple if the run knows no pairs."""
        if not isinstance(text, tuple):
            return text
        if not self.has_pairs:
            raise ValueError(
                f'{self.path} was trained with single texts, not pairs; give it a list of str, or '
                'train with --text_pair_column'
            )
        first, second = text
        return join_pair(first, second)

    def truncate(self, ids):
        """
        The ids of one text -> those that are read: at most block_size, cut as in training, or with
        windows all of them.
        """
        if self.windows:
            return ids
        keep = self.checkpoint['settings']['keep']
        n_prefix, n_suffix = self.tokenizer.n_prefix, self.tokenizer.n_suffix
        return memmaps.truncate(ids, self.block_size, keep, n_prefix, n_suffix, self.pair_ids)

    def is_truncated(self, length):
        """Is only a part read of a text of so many tokens?"""
        return bool(length > self.block_size) and not self.windows

    def logits(self, texts, batch_size=64):
        """A list of n raw texts or pairs -> logits (n, n_class), float32, not calibrated."""
        return self.predict([self.truncate(ids) for ids in self.encode(texts)], batch_size)

    def predict(self, ids, batch_size=64):
        """A sequence of n arrays of token ids, as truncate returns them -> logits (n, n_class)."""
        if self.device == 'cpu':
            fast.keep_memory()  # after tokenizing; a fifth less time
        if self.windows:
            logits = self.mean_logits(ids, batch_size)
        else:
            logits = fast.predict(self.model, ids, batch_size, self.dtype)
        if not np.isfinite(logits).all():
            raise ValueError(
                f'{self.path} answers with numbers that are not finite; its weights are damaged or '
                f'too large for {self.dtype}: try --dtype=float32, or train again'
            )
        return logits

    def mean_logits(self, ids, batch_size):
        """A sequence of n arrays of token ids, of any length -> mean logits of their windows."""
        n_prefix, n_suffix = self.tokenizer.n_prefix, self.tokenizer.n_suffix
        all_windows = []
        text_of_window = []
        for i in range(len(ids)):
            windows_of_text = memmaps.windows(ids[i], self.block_size, n_prefix, n_suffix)
            all_windows += windows_of_text
            text_of_window += [i] * len(windows_of_text)

        logits = fast.predict(self.model, all_windows, batch_size, self.dtype)
        sums = np.zeros((len(ids), len(self.labels)), dtype=np.float32)
        np.add.at(sums, text_of_window, logits)
        n_windows = np.bincount(text_of_window, minlength=len(ids))
        return sums / n_windows[:, None].astype(np.float32)

    def probabilities(self, logits):
        """Logits (n, n_class) -> calibrated probabilities (n, n_class), float64."""
        return metrics.softmax(logits / self.temperature)

    def __call__(self, texts, threshold=0.0, batch_size=64):
        """The same as classify."""
        return self.classify(texts, threshold, batch_size)

    def classify(self, texts, threshold=0.0, batch_size=64):
        """
        A list of texts, or of pairs (first, second) -> a dict for each, with

        text           as it was given
        label          the most probable label, or 'uncertain' if its probability is below threshold
        probability    of the most probable label, rounded to 4 digits
        runner_up      the second label
        probabilities  of all labels, rounded likewise
        truncated      True if the text is longer than block_size, so that only a part was read
        """
        assert not isinstance(texts, str), 'give a list of texts, even of one'
        encoded = self.encode(texts)
        truncated = [self.truncate(ids) for ids in encoded]
        probabilities = self.probabilities(self.predict(truncated, batch_size))
        answers = []
        for text, ids, probabilities_of_text in zip(texts, encoded, probabilities.tolist()):
            exact = dict(zip(self.labels, probabilities_of_text))
            best, second = sorted(exact, key=exact.get, reverse=True)[:2]
            rounded = {label: round(probability, 4) for label, probability in exact.items()}
            answers.append(
                {
                    'text': text,
                    # the rounded value decides, so that the answer agrees with what is shown
                    'label': best if rounded[best] >= threshold else 'uncertain',
                    'probability': rounded[best],
                    'runner_up': second,
                    'probabilities': rounded,
                    'truncated': self.is_truncated(len(ids)),
                }
            )
        return answers
