"""
The model card of report.py: what a run is, how good it is and how sure that is, and what it should
not be used for. Every figure in it comes from evaluation.json, the examples of errors from
errors.csv.

The head follows https://hf.co/docs/hub/model-cards, so that the file can be the README.md of a
model on the Hugging Face hub.
"""

import json
import re
import shlex

from nanosentiment.metrics import wilson

# -----------------------------------------------------------------------------
# Markdown


def format_value(value):
    """A share as 0.733, an interval as 0.521 to 0.833, None as '', anything else as it is."""
    if isinstance(value, (tuple, list)):
        return ' to '.join(format_value(x) for x in value)
    if value is None:
        return ''
    if isinstance(value, float):
        return f'{value:.3f}'
    return str(value)


def format_percent(share):
    """0.8333 -> '83.3 %'"""
    return f'{100 * share:.1f} %'


def markdown_table(header, rows):
    """Column names and rows of values -> a Markdown table."""
    lines = []
    for row in (header, ['---'] * len(header), *rows):
        cells = [format_value(value) for value in row]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def escape_markdown(text):
    """A label as Markdown shows it unchanged: on one line, its marks escaped."""
    one_line = ' '.join(text.split())
    return re.sub(r'([^\w\s]|_)', r'\\\1', one_line)


def without_folders(value):
    """
    A setting for the card, which others read: '/home/ann/mine.csv' -> 'mine.csv'. What is no path
    from a root, a drive or a home folder stays as it is.
    """
    if isinstance(value, str) and re.match(r'/|~|[A-Za-z]:[\\/]', value):
        return re.split(r'[\\/]', value)[-1] or value
    return value


def command_without_folders(command):
    """'python train.py --dataset=/home/ann/mine.csv' -> 'python train.py --dataset=mine.csv'"""
    parts = []
    for part in shlex.split(command):
        name, equals, value = part.partition('=')
        if equals:
            parts.append(name + equals + without_folders(value))
        else:
            parts.append(without_folders(part))
    return shlex.join(parts)


def dataset_slug(evaluation):
    """The data set's name as the hub allows it."""
    return re.sub(r'[^\w.-]+', '-', evaluation['dataset'])


# -----------------------------------------------------------------------------
# parts of the card


def card_head(evaluation, name, language='', library='nanosentiment'):
    """The head between two lines of ---, in YAML."""
    dataset = dataset_slug(evaluation)
    result = {
        'task': {'type': 'text-classification'},
        'dataset': {'name': dataset, 'type': dataset, 'split': evaluation['split']},
        'metrics': [
            {'type': 'accuracy', 'value': evaluation['accuracy']},
            {'type': 'f1', 'name': 'macro-F1', 'value': evaluation['macro_f1']},
        ],
    }
    head = {
        'library_name': library,
        'pipeline_tag': 'text-classification',
        'tags': ['nanogpt'],
        'datasets': [dataset],
        'metrics': ['accuracy', 'f1'],
        'model-index': [{'name': name, 'results': [result]}],
    }
    if language:
        head = {'language': language} | head
    # JSON is YAML, too
    lines = [f'{key}: {json.dumps(value, ensure_ascii=False)}' for key, value in head.items()]
    return '\n'.join(['---', *lines, '---'])


def named_models(evaluation):
    """{name: scores} of this model and of the baselines that were scored."""
    models = {'this model': evaluation}
    for name, scores in evaluation['baseline'].items():
        if scores:
            models[name.replace('_', ' ')] = scores
    return models


def score_table(evaluation):
    """Accuracy and macro-F1 of this model and the baselines."""
    columns = ('accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci')
    rows = []
    for name, scores in named_models(evaluation).items():
        # the baselines have no intervals
        rows.append([name, *(scores.get(column) for column in columns)])
    return markdown_table(('', 'accuracy', '95 %', 'macro-F1', '95 %'), rows)


def label_table(evaluation):
    """Precision, recall and F1 of each label."""
    rows = []
    n_predicted = [sum(column) for column in zip(*evaluation['confusion'])]
    for i, label in enumerate(evaluation['labels']):
        scores = evaluation['per_class'][label]
        hits = evaluation['confusion'][i][i]
        precision_ci = wilson(hits, n_predicted[i])
        recall_ci = wilson(hits, scores['support'])
        row = [escape_markdown(label), scores['precision'], precision_ci]
        row += [scores['recall'], recall_ci, scores['f1'], scores['support']]
        rows.append(row)
    header = ('label', 'precision', '95 %', 'recall', '95 %', 'F1', 'texts')
    return markdown_table(header, rows)


def calibration_part(evaluation):
    """How far its confidence can be trusted, and what it gains to answer only when confident."""
    nll = format_value(evaluation['nll'])
    ece = format_value(evaluation['ece'])
    ece_calibrated = format_value(evaluation['ece_calibrated'])
    temperature = format_value(evaluation['temperature'])
    sentence = f'NLL {nll} nats, ECE {ece}. '
    sentence += f'With logits divided by the temperature {temperature}, ECE {ece_calibrated}.'
    header = ('confidence at least', 'share of texts', 'accuracy on these')
    return [sentence, markdown_table(header, evaluation['coverage'])]


def confident_errors(errors):
    """Of each true label the error with the highest confidence; errors.csv is in this order."""
    first_of_label = {}
    for row in errors:
        first_of_label.setdefault(row['label'], row)
    parts = []
    for row in first_of_label.values():
        label = escape_markdown(row['label'])
        prediction = escape_markdown(row['prediction'])
        confidence = format_value(float(row['confidence']))
        where = f'row {row["row"]}'
        parts.append(f'{label}, predicted as {prediction} with confidence {confidence}, {where}:')
        # indented, so that Markdown shows the text as it is, whatever it holds
        text = ' '.join(row['text'].split())
        parts.append('    ' + text[:300])
    return parts


def limits(evaluation):
    """What the model should not be used for, as a list of sentences."""
    dataset = dataset_slug(evaluation)
    settings = evaluation['settings']
    error_rate = format_percent(1 - evaluation['accuracy'])
    sentences = [
        f'Do not use it for texts unlike {dataset}, or in another language. It was trained on '
        f'{evaluation["n_train"]:,} of these texts and tested on no others.',
        f'Do not use it for long texts. Of more than {settings["block_size"]} tokens it reads '
        f'only a part (keep={settings["keep"]}).',
        'Do not compare it with another model by the intervals above. For small differences '
        'between models use evaluate.py --against.',
        f'Do not decide about people without a person who checks. {error_rate} of its answers '
        f'on {evaluation["split"]} were wrong.',
    ]

    # a baseline that is as good is much cheaper
    for name, scores in named_models(evaluation).items():
        if scores is not evaluation and scores['macro_f1'] >= evaluation['macro_f1']:
            sentences.append(f'Prefer the {name} baseline, which has at least the same macro-F1.')
    # on fewer than 30 texts the interval of the recall is wide
    for i, label in enumerate(evaluation['labels']):
        counts = evaluation['confusion'][i]
        n_true = sum(counts)
        if n_true < 30:
            recall = format_value(wilson(counts[i], n_true))
            what = f'Do not rely on it to find every {escape_markdown(label)} text'
            sentences.append(f'{what}. {n_true} texts only show that its recall is {recall}.')
    return sentences


# -----------------------------------------------------------------------------
# the card


def model_card(evaluation, errors, name, language=''):
    """
    What evaluation.json holds and the rows of errors.csv -> the text of a model card.

    language is that of the texts, as a code ('en', 'tr'); '' leaves it out.
    """
    # what it is
    dataset = dataset_slug(evaluation)
    unknown_labels = evaluation.get('unknown_labels', [])
    known_labels = [label for label in evaluation['labels'] if label not in unknown_labels]
    labels = [escape_markdown(label) for label in known_labels]
    best_epoch = evaluation['best']['epoch']
    how_chosen = 'the last one'
    if 'n_val' in evaluation:
        how_chosen = f'chosen on {evaluation["n_val"]:,} other texts'
    parts = [card_head(evaluation, name, language), f'# {name}']
    parts.append(f'{evaluation["n_params"]:,} parameters; labels: {", ".join(labels)}.')
    parts.append(
        f'Trained on {evaluation["n_train"]:,} texts of {dataset}. '
        f'The weights are those of epoch {best_epoch:.4g}, {how_chosen}.'
    )

    # how good it is
    parts.append(f'## Scores on {evaluation["split"]}, {evaluation["n"]:,} texts')
    parts.append(score_table(evaluation))
    parts.append(label_table(evaluation))
    parts.append('## Calibration')
    parts += calibration_part(evaluation)
    parts.append('## Most confident errors')
    parts += confident_errors(errors)

    # what it is not good for
    items = [f'- {sentence}' for sentence in limits(evaluation)]
    parts.append('## Limits')
    parts.append('\n'.join(items))

    # how it was made
    versions = evaluation['versions'] | {'commit': evaluation['git']}
    versions = [f'{package} {version}' for package, version in versions.items()]
    parts.append('## Made by')
    parts.append(f'    {command_without_folders(evaluation["command"])}')
    settings = {key: without_folders(value) for key, value in evaluation['settings'].items()}
    parts.append(f'    {json.dumps(settings, ensure_ascii=False)}')
    parts.append(', '.join(versions))
    return '\n\n'.join(parts) + '\n'
