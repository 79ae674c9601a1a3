"""
Is what a checkpoint says possible? Asked before anything is built of it.

The file may be damaged, of another program or of somebody with bad intentions. torch.load opens it
without running code, but what it holds may still be any value: a size of 10**9, a label that is no
text, an optimizer state of another shape, which would be read beyond its end. All functions here
raise a ValueError of a few words, to which the caller adds the file and the remedy.
"""

import dataclasses
import math
import re

import torch

from nanosentiment.cleaning import STEP_TYPES, STEPS
from nanosentiment.files import check_fields, check_texts

NUMBER = (int, float)

# what a checkpoint must hold, and what it may lack if it is of an older version or of another kind
CHECKPOINT = {
    'model': dict,
    'config': dict,
    'settings': dict,
    'labels': list,
    'tokenizer': dict,
    'recipe': dict,
}
CHECKPOINT_OPTIONAL = {
    'dataset': str,
    'command': str,
    'versions': dict,
    'git': str,
    'temperature': float,
    'best': (dict, type(None)),
    'metrics': (dict, type(None)),
    'run': dict,
    'optimizer': dict,
    'scaler': dict,
}
TOKENIZER = {'kind': str, 'name': str, 'text': str}
TOKENIZER_OPTIONAL = {'appends_end': bool}
RECIPE = {'columns': list}
RECIPE_OPTIONAL = {
    'label_names': dict,
    'names': dict,  # their key in older versions
    'raw': dict,
    'table': dict,
    'tokenizer': list,
    'text_pair_column': str,
    'uncleaned': bool,
    'labelled': bool,
    **STEP_TYPES,
}
SETTINGS = {'dtype': str, 'keep': str}
# the state of train.py's loop
RUN = {
    'iter': int,
    'best': (dict, type(None)),
    'best_score': (list, type(None)),
    'bad_evals': int,
    'loss_sum': float,
    'loss_n': int,
    'examples': int,
    'train_seconds': float,
    'seconds': float,
}


# -----------------------------------------------------------------------------
# checkpoints


def check_checkpoint(checkpoint, config_class):
    """
    ValueError unless a dict is a checkpoint of this project that can be used.

    config_class is model.Config. Looks at types, labels, recipe, temperature, tokenizer and
    weights. Whether the tokenizer's text can be read is left to load_tokenizer.
    """
    check_fields(checkpoint, CHECKPOINT, CHECKPOINT_OPTIONAL, 'it')
    check_fields(checkpoint['settings'], SETTINGS, {}, 'its settings')
    check_fields(checkpoint['tokenizer'], TOKENIZER, TOKENIZER_OPTIONAL, 'its tokenizer')
    check_recipe(checkpoint['recipe'])
    check_labels(checkpoint['labels'])
    temperature = checkpoint.get('temperature', 1.0)
    if not (0 < temperature < math.inf):  # False for nan, too
        raise ValueError(f'its temperature is {temperature}')
    check_config(checkpoint['config'], config_class)
    n_class = checkpoint['config']['n_class']
    if n_class != len(checkpoint['labels']):
        raise ValueError(f'it has {len(checkpoint["labels"])} labels and {n_class} logits')
    check_weights(checkpoint['model'], checkpoint['config'])


def check_labels(labels):
    """ValueError unless all labels are texts, and no two are alike."""
    check_texts(labels, 'its labels')
    if len(set(labels)) < len(labels):
        raise ValueError('several of its labels are alike')


def check_recipe(recipe):
    """ValueError unless a recipe can be followed: how tables were read and texts cleaned."""
    check_fields(recipe, RECIPE, RECIPE_OPTIONAL, 'its recipe')
    check_texts(recipe['columns'], 'the columns of its recipe')
    if len(recipe['columns']) != 2:
        raise ValueError('the columns of its recipe are not two')
    for key in ('label_names', 'names', 'raw'):
        names = recipe.get(key, {})
        check_texts([*names, *names.values()], f'{key} of its recipe')
    missing = [step for step in STEPS if step not in recipe]
    if missing and not recipe.get('uncleaned'):
        raise ValueError(f'its recipe lacks {missing[0]!r}')


def check_config(config, config_class):
    """ValueError unless a dict has values of the right type for all fields of a Config."""
    fields = {field.name: field.type for field in dataclasses.fields(config_class)}
    types = {name: NUMBER if kind is float else kind for name, kind in fields.items()}
    unknown = config.keys() - fields.keys()
    if unknown:
        raise ValueError(f'its config has {sorted(map(str, unknown))[0]!r}, of another version')
    check_fields(config, {'n_class': int}, types, 'its config')
    config_class(**config)  # which looks at the values


def check_weights(weights, config):
    """
    ValueError unless the weights are tensors of finite numbers, of the sizes that config says.

    Compared before a model is built, because n_layer=10**9 would build layers until the memory is
    full. The shapes of all others follow from these sizes, and load_state_dict compares them.
    """
    for name, weight in weights.items():
        if not isinstance(name, str) or not isinstance(weight, torch.Tensor):
            raise ValueError(f'its weight {str(name)[:60]!r} is no tensor')
        is_plain = weight.device.type == 'cpu' and weight.layout == torch.strided
        # an expanded tensor has any number of rows, all in the place of one
        if not is_plain or not weight.is_contiguous() or not weight.is_floating_point():
            raise ValueError(f'its weight {name} is no plain tensor of numbers')
        # The sum takes a 17th of the time of a look at each number. It is finite if all numbers
        # are, unless they are so large that it overflows.
        if not weight.sum().isfinite() and not weight.isfinite().all():
            raise ValueError(f'its weight {name} holds numbers that are not finite')

    layers = [re.match(r'h\.\d+\.', name) for name in weights]
    sizes = {'n_layer': len({layer[0] for layer in layers if layer})}
    pos_offset = config.get('pos_offset', 0)
    for size, name, dimension in (
        ('vocab_size', 'wte.weight', 0),
        ('block_size', 'wpe.weight', 0),
        ('n_embd', 'h.0.attn.c_proj.weight', 0),
        ('n_inner', 'h.0.mlp.c_fc.weight', 0),
        ('n_class', 'head.weight', 0),
        ('n_type', 'wse.weight', 0),
        ('embedding_size', 'wte.weight', 1),
        ('n_bucket', 'rel_bias.weight', 0),
    ):
        weight = weights.get(name)
        if weight is not None and weight.dim() > dimension:
            sizes[size] = weight.size(dimension)
    sizes['block_size'] = sizes.get('block_size', 0) - pos_offset
    for size, value in sizes.items():
        if config.get(size, value) != value:
            raise ValueError(f'its config says {size}={config[size]}, its weights {value}')


def check_run(run):
    """ValueError unless a dict is the state of train.py's loop."""
    check_fields(run, RUN, {}, 'its state')
    if run['iter'] < 0 or run['loss_n'] < 0:
        raise ValueError(f'its state says iter={run["iter"]}, loss_n={run["loss_n"]}')
    if run['best'] is not None:  # without a validation split it has no score
        check_fields(run['best'], {'iter': int, 'epoch': float}, {}, 'its best evaluation')
    if run['best_score'] is not None:
        if run['best'] is None:
            raise ValueError('its state has a best score without its evaluation')
        if not all(isinstance(score, float) for score in run['best_score']):
            raise ValueError('its best score is no list of numbers')


def check_optimizer(state, optimizer):
    """
    ValueError unless a saved optimizer state fits an optimizer of the same parameters.

    AdamW's fused step does not look at shapes: with a smaller state it reads beyond its end.
    """
    check_fields(state, {'state': dict, 'param_groups': list}, {}, 'its optimizer')
    own_groups = optimizer.state_dict()['param_groups']
    own_numbers = [group['params'] for group in own_groups]
    if [group['params'] for group in state['param_groups']] != own_numbers:
        raise ValueError('its optimizer has other groups of parameters')
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    numbers = range(len(parameters))
    for number, tensors in state['state'].items():
        if type(number) is not int or number not in numbers or not isinstance(tensors, dict):
            raise ValueError(f'its optimizer has a state for {str(number)[:60]!r}')
        shape = parameters[number].shape
        for key, right_shape in (('step', ()), ('exp_avg', shape), ('exp_avg_sq', shape)):
            tensor = tensors.get(key)
            if not isinstance(tensor, torch.Tensor) or tensor.shape != right_shape:
                raise ValueError(f'{key} of its optimizer does not fit parameter {number}')
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise ValueError(f'{key} of its optimizer is not of finite numbers')
