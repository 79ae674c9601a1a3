"""
The README.md of an exported folder: what the model is, how to use it, how good it is, and in what
the classes of transformers differ from the run. See to_hf.py, and card.py for the card of a run.
"""

import os

from nanosentiment.card import (
    calibration_part,
    card_head,
    command_without_folders,
    escape_markdown,
    format_value,
    label_table,
    score_table,
)
from nanosentiment.cleaning import STEPS
from nanosentiment.predictions import evaluate_command, output_paths, read_evaluation

# values with which a step of cleaning.py does nothing
OFF = (False, 'all')


def steps_that_are_on(classifier):
    """{name of a step of cleaning.py: value}, of those that change texts."""
    recipe = classifier.checkpoint['recipe']
    # a classifier that was not trained here has no steps
    return {step: recipe[step] for step in STEPS if recipe.get(step, False) not in OFF}


def hf_card(classifier, hf_config, n_params, tidies_white_space):
    """
    A Classifier and what config.json holds -> the text of README.md.

    n_params is the number of parameters in the folder; tidies_white_space tells whether its
    tokenizer does that part of the cleaning.
    """
    evaluation = find_evaluation(classifier.path)
    folder = classifier.path
    if folder.endswith('.pt'):
        folder = os.path.dirname(folder)
    name = os.path.basename(os.path.abspath(folder))
    parts = [head(evaluation, name), f'# {name}']
    parts += description(classifier, hf_config, n_params)
    parts += usage(classifier)
    parts += cleaning_part(classifier, tidies_white_space)
    parts += probabilities_part(classifier)
    parts += scores(evaluation, classifier.path)
    parts += differences(classifier, hf_config)
    return '\n\n'.join(parts) + '\n'


def find_evaluation(path):
    """What evaluate.py has written about a run or a .pt file; None if it has not been evaluated."""
    evaluation_path = output_paths(path)['evaluation']
    if not os.path.exists(evaluation_path):
        return None
    return read_evaluation(evaluation_path, f'run {evaluate_command(path)} again')


# -----------------------------------------------------------------------------
# its parts, each a list of paragraphs


def head(evaluation, name):
    """The head between two lines of ---, in YAML. https://hf.co/docs/hub/model-cards"""
    if evaluation is None:
        lines = ['---', 'library_name: transformers', 'pipeline_tag: text-classification']
        return '\n'.join([*lines, 'tags: [nanosentiment]', '---'])
    return card_head(evaluation, name, library='transformers')


def description(classifier, hf_config, n_params):
    """What it is, and how it was trained."""
    checkpoint = classifier.checkpoint
    labels = ', '.join(escape_markdown(label) for label in classifier.labels)
    [class_name] = hf_config['architectures']
    return [
        f'{n_params:,} parameters, `{class_name}`; labels: {labels}.',
        f'Trained on {escape_markdown(checkpoint["dataset"])} by',
        f'    {command_without_folders(checkpoint["command"])}',
    ]


def usage(classifier):
    """The few lines that classify a text."""
    content = "'It never arrived.'"
    if classifier.has_pairs:
        content = "{'text': 'Where is it?', 'text_pair': 'It never arrived.'}"
    code = [
        '```python',
        'from transformers import pipeline',
        '',
        "classify = pipeline('text-classification', model='path/of/this/folder', truncation=True)",
        f'print(classify({content}))',
        '```',
    ]
    side = 'last'
    if classifier.checkpoint['settings']['keep'] == 'first':
        side = 'first'
    length = (
        f'Of a text of more than {classifier.block_size} tokens it reads the {side} ones. '
        'Without `truncation=True` such a text is an error.'
    )
    return ['## Use', '\n'.join(code), length]


def cleaning_part(classifier, tidies_white_space):
    """What must be done to a text before the tokenizer gets it."""
    steps = steps_that_are_on(classifier)
    parts = ['## Cleaning']
    white_space = 'runs of blanks are one blank and blank lines are left out'
    if tidies_white_space:
        parts.append(f'White space is tidied by the tokenizer: {white_space}.')
    if not steps and tidies_white_space:
        parts.append('Nothing else was done to the texts in training, so give it raw texts.')
        return parts
    if not tidies_white_space:
        parts.append(f'White space was tidied in training ({white_space}), which `clean` does.')
    names = ', '.join(f'`{step}`' for step in steps) or 'white space'
    recipe = classifier.checkpoint['recipe']
    settings = {step: recipe[step] for step in STEPS}
    parts.append(
        f'The texts were cleaned in training ({names}), and the tokenizer does not do that. '
        'With the code of nanosentiment:'
    )
    code = [
        '```python',
        'from nanosentiment.cleaning import clean',
        '',
        f'settings = {settings!r}',
        "print(classify(clean('It <b>never</b> arrived.', settings)))",
        '```',
    ]
    parts.append('\n'.join(code))
    return parts


def probabilities_part(classifier):
    """What to divide the logits by."""
    temperature = format_value(float(classifier.temperature))
    return [
        '## Probabilities',
        'The scores of the pipeline are the softmax of the logits. Calibrated probabilities are '
        f'the softmax of the logits divided by {temperature}, the temperature that was fitted on '
        'validation texts. With `function_to_apply="none"` the pipeline gives the logits.',
        "`from nanosentiment import Classifier; Classifier('path/of/this/folder')` cleans, cuts "
        'and calibrates by itself.',
    ]


def scores(evaluation, path):
    """How good the run is."""
    if evaluation is None:
        return ['## Scores', f'It was not evaluated: {evaluate_command(path)}']
    title = f'## Scores on {evaluation["split"]}, {evaluation["n"]:,} texts'
    return [title, score_table(evaluation), label_table(evaluation), *calibration_part(evaluation)]


def differences(classifier, hf_config):
    """In what this folder differs from the run, although the logits are the same."""
    sentences = []
    if hf_config['model_type'] == 'gpt2':
        sentences += [
            'The class has no bias in its head. That of the run is part of the bias of the last '
            'LayerNorm, where it has the same effect.',
            'Padding is a token of its own with a row of zeros in the embedding, because the class '
            'reads the last token before the padding.',
        ]
    if classifier.tokenizer.kind == 'bpe' or classifier.tokenizer.appended_ids:
        sentences.append(
            'The tokenizer puts `<|endoftext|>` behind each text. It is the token that the head '
            'reads.'
        )
    sentences += [
        'A special token that somebody types, such as `[SEP]`, is plain text '
        '(`split_special_tokens`).',
        'For training with transformers, config.json has the dropout of the run, as far as the '
        'class knows it.',
    ]
    return ['## What differs from the run', '\n'.join(f'- {sentence}' for sentence in sentences)]
