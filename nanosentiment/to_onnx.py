"""
A run as one ONNX graph, which answers without torch and without this project.

    inputs      input_ids (B, T) int64, padded on the right with anything
                attention_mask (B, T) int64, 1 at real tokens and 0 at padding
    outputs     probabilities (B, n_class) float32, calibrated as the run's own
                logits (B, n_class) float32, before the temperature

B and T may be anything, T up to block_size. Token types of pairs are found inside of the graph.
The tokenizer lies beside the graph as tokenizer.json. It cuts and pads texts, but does not clean
them. The graph's metadata says how the run did that, and what the labels are, see `describe`.

The packages are optional: pip install onnx onnxruntime tokenizers
https://onnx.ai/onnx/intro, https://onnxruntime.ai/docs
"""

import importlib
import json
import logging
import os
import warnings

import numpy as np
import torch

from nanosentiment.cleaning import STEPS
from nanosentiment.files import write_whole
from nanosentiment.memmaps import pad_rows
from nanosentiment.predictions import output_paths, read_table
from nanosentiment.to_hf import tokenizer_json

OPSET = 17  # of the operators; the first that has LayerNorm, and old runtimes know it
MAX_BYTES = 2**31  # of one .onnx file, because protobuf counts in 32 bits
INPUTS = ('input_ids', 'attention_mask')
OUTPUTS = ('probabilities', 'logits')

# the check: how many texts, how many of them with random tokens, and the difference allowed
N_TEXTS = 200
N_RANDOM_TEXTS = 40
TOLERANCE = 1e-4


def export(classifier, path, int8=False):
    """
    Writes a Classifier as one .onnx file, whole or not at all, and its tokenizer.json beside it.

    With int8 the weights of the linear layers and the embeddings have 8 bits: a quarter of the
    size, faster, and a little less exact. The file is then <name>.int8.onnx.

    Before the file gets its name, onnxruntime compares it with the classifier. Returns a dict:

    path, bytes, opset   of the file
    checked              number of texts compared
    max_difference       largest difference of a probability, or None
    same_labels          number of texts that get the same label, or None

    ValueError if a package is missing, if the classifier does not compute in float32 on a CPU, if
    the file cannot be written, and if the graph does not answer as the classifier. With int8 it
    may differ, and the dict says how much.
    """
    check_classifier(classifier)
    import_package('onnx')
    import_package('onnxruntime')
    path = os.fspath(path)
    if int8:
        path = path.removesuffix('.onnx').removesuffix('.int8') + '.int8.onnx'
    tokenizer_file = make_tokenizer_file(classifier)
    folder = os.path.dirname(path)
    temporary = f'{path}.{os.getpid()}'  # with the process number, as in files.write_whole
    try:
        os.makedirs(folder or '.', exist_ok=True)
        write_graph(classifier, temporary)
        if int8:
            quantize(temporary)
        write_metadata(temporary, describe(classifier))
        result = compare(classifier, temporary, int8)
        if not int8:
            check_result(result, path)
        write_whole(os.path.join(folder, 'tokenizer.json'), tokenizer_file)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f'{path} cannot be written ({error.strerror}); make room, or name another file'
        ) from None
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    return {'path': path, 'bytes': os.path.getsize(path), 'opset': OPSET, **result}


# -----------------------------------------------------------------------------
# what must be there


def import_package(name):
    """An optional package. ValueError that tells how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        what = f'ONNX files need the package {name}, which is not installed'
        raise ValueError(f'{what}; pip install onnx onnxruntime tokenizers') from None


def check_classifier(classifier):
    """ValueError for a Classifier that cannot be exported as it is."""
    is_plain = classifier.device == 'cpu' and classifier.dtype == torch.float32
    if not is_plain or classifier.windows:
        what = 'an ONNX graph is made in float32 on a CPU, and reads no windows'
        remedy = f"Classifier({classifier.path!r}, device='cpu', dtype='float32')"
        raise ValueError(f'{what}; open the run with {remedy}')
    n_bytes = 4 * classifier.model.num_params()
    if n_bytes > MAX_BYTES:
        size = f'{classifier.path} has {n_bytes / 1e9:.1f} GB of weights'
        raise ValueError(f'{size}, and an .onnx file holds 2 GB; use --to=hf')


# -----------------------------------------------------------------------------
# the graph


class CalibratedModel(torch.nn.Module):
    """What the graph computes. Its inputs and outputs are in the docstring of this file."""

    def __init__(self, model, temperature):
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, input_ids, attention_mask):
        lengths = attention_mask.sum(dim=1)  # (B,)
        logits, _ = self.model(input_ids, lengths)  # (B, n_class)
        probabilities = torch.softmax(logits / self.temperature, dim=-1)
        return probabilities, logits


def write_graph(classifier, path):
    """
    Traces the model with two short texts and writes the graph, whose sizes are variable.

    dynamo=False is torch's older exporter. The newer one wants a further package (onnxscript) and
    takes six times as long, and its graph was a tenth slower (torch 2.13, MiniLM, 25 tokens).
    """
    model = CalibratedModel(classifier.model, classifier.temperature)
    # a text of a single token would be traced as a size of 1, which could be taken for a constant
    input_ids = torch.zeros(2, 3, dtype=torch.int64)
    attention_mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    variable_sizes = {name: {0: 'batch', 1: 'length'} for name in INPUTS}
    variable_sizes |= {name: {0: 'batch'} for name in OUTPUTS}
    with warnings.catch_warnings():
        # It warns that it is the older one, and of each size that becomes a constant. Those are
        # sizes of the model; compare() would find out if another one was among them.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            model.eval(),
            (input_ids, attention_mask),
            path,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_axes=variable_sizes,
            opset_version=OPSET,
            dynamo=False,
        )


def quantize(path):
    """
    Rounds a graph's weights to 8 bits; the inputs of its layers are rounded as it runs.

    per_channel gives each column of a matrix its own scale: probabilities of MiniLM on SST-2's
    validation texts then differ by 0.013 on average, and by 0.029 without. reduce_range uses 7 of
    the 8 bits, because processors without VNNI add up in 16 bits, which would overflow; with
    per_channel it cost nothing.
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    quantization = import_package('onnxruntime.quantization')
    logging.disable(logging.WARNING)  # it advises a preparation for convolutions
    try:
        quantization.quantize_dynamic(path, path, per_channel=True, reduce_range=True)
    finally:
        logging.disable(logging.NOTSET)


def describe(classifier):
    """
    What one must know to use the graph: {name: str}, each a JSON value.

    labels        the names, in the order of the probabilities
    block_size    the most tokens of a text, special tokens included
    keep          which end of a longer text stays: "first", "last" or "both"
    cleaning      the steps of cleaning.py that a text goes through first, with their values; none
                  if the classifier is of transformers
    temperature   by which the graph divides the logits
    tokenizer     the name of the vocabulary
    """
    recipe = classifier.checkpoint['recipe']
    values = {
        'labels': classifier.labels,
        'block_size': classifier.block_size,
        'keep': classifier.checkpoint['settings']['keep'],
        'cleaning': {name: recipe[name] for name in STEPS if name in recipe},
        'temperature': classifier.temperature,
        'tokenizer': classifier.tokenizer.name,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def write_metadata(path, metadata):
    """Adds {name: str} to the metadata of an .onnx file."""
    onnx = import_package('onnx')
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, metadata)
    onnx.save(graph, path)


def make_tokenizer_file(classifier):
    """
    The content of a tokenizer.json for the package tokenizers, which gives the run's ids, cuts long
    texts as the run does, and pads a batch. Only keep='both' it cannot do: then it does not cut.
    """
    tokenizers = import_package('tokenizers')
    coder = tokenizers.Tokenizer.from_str(tokenizer_json(classifier))
    coder.enable_padding()
    directions = {'first': 'right', 'last': 'left'}  # which end is cut off
    keep = classifier.checkpoint['settings']['keep']
    if keep in directions:
        coder.enable_truncation(classifier.block_size, direction=directions[keep])
    return coder.to_str()


# -----------------------------------------------------------------------------
# the check


def open_session(path, n_threads):
    """An .onnx file -> an onnxruntime session on the CPU."""
    onnxruntime = import_package('onnxruntime')
    options = onnxruntime.SessionOptions()
    # by default it takes all cores of the machine, even those that this process may not use
    options.intra_op_num_threads = n_threads
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def run_graph(session, ids, batch_size=16):
    """A list of n arrays of token ids -> probabilities (n, n_class), in batches as they come."""
    probabilities = []
    for start in range(0, len(ids), batch_size):
        idx, lengths = pad_rows(ids[start : start + batch_size])
        is_real = np.arange(idx.shape[1]) < lengths[:, None]  # (B, T)
        inputs = {'input_ids': idx, 'attention_mask': is_real.astype(np.int64)}
        probabilities.append(session.run(['probabilities'], inputs)[0])
    return np.concatenate(probabilities)


def compare(classifier, path, int8):
    """A graph beside its classifier -> checked, max_difference and same_labels, as in export."""
    ids = read_test_texts(classifier)
    if not int8 or not ids:
        # random tokens show whether the graph is right, but not how well rounded weights do
        ids += random_texts(classifier.model.config, N_TEXTS - len(ids))
    session = open_session(path, torch.get_num_threads())
    theirs = run_graph(session, ids)
    ours = classifier.probabilities(classifier.predict(ids))
    return {
        'checked': len(ids),
        'max_difference': float(np.abs(ours - theirs).max()),
        'same_labels': int((ours.argmax(1) == theirs.argmax(1)).sum()),
    }


def read_test_texts(classifier):
    """
    The first of the run's test texts as arrays of token ids, a pair as one text; [] if the run was
    not evaluated.
    """
    paths = output_paths(classifier.path)
    try:
        _, rows = read_table(paths['predictions'], 'evaluate.py')
    except ValueError:
        return []
    texts = [row['text'] for row in rows[: N_TEXTS - N_RANDOM_TEXTS]]
    return [classifier.truncate(ids) for ids in classifier.encode(texts)]


def random_texts(config, n_texts):
    """
    n_texts arrays of random token ids, from 1 to block_size long and most of them short. With
    pairs there is a separator in the middle.
    """
    rng = np.random.default_rng(0)
    texts = []
    for length in np.geomspace(1, config.block_size, n_texts).round().astype(int):
        ids = rng.integers(config.vocab_size, size=length)
        if config.pair_sep >= 0:
            ids[length // 2] = config.pair_sep
        texts.append(ids)
    return texts


def check_result(result, path):
    """ValueError if a graph in float32 does not answer as its classifier."""
    n_other = result['checked'] - result['same_labels']
    difference = result['max_difference']
    # not difference > TOLERANCE, which is False for nan
    is_same = difference <= TOLERANCE and n_other == 0
    if not is_same:
        what = f'its probabilities differ by up to {difference:.1e}'
        labels = f'{n_other} of {result["checked"]} labels are others'
        remedy = 'use --to=hf, and report this with your versions of torch and onnxruntime'
        raise ValueError(f'{path} is not written, because {what} and {labels}; {remedy}')
