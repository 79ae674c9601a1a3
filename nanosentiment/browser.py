"""
report.html: one page on which a run's errors can be looked through, without a server or a network.

browser.py collects what the page shows; the page itself is nanosentiment/web/report.html, .css and
.js, which are put into one file together with the data. Everything that needs statistics is
computed here, so that the page has only to filter, sort and draw.
"""

import csv
import math
from pathlib import Path

import numpy as np

from nanosentiment import metrics
from nanosentiment.card import command_without_folders
from nanosentiment.error_tags import TAGS
from nanosentiment.files import check_fields, read_json_lines, to_json, write_whole
from nanosentiment.predictions import (
    MAX_CELL,
    check_table,
    evaluate_command,
    read_evaluation,
    read_predictions,
    unquote_formula,
)

WEB_DIR = Path(__file__).parent / 'web'

# a curve of more points would look the same, and make the file larger
MAX_CURVE_POINTS = 1000

# nobody looks through more of them on a page; suspects.csv has all
MAX_SUSPECTS = 500

# Probabilities and weights are written as whole numbers: 0.8333 as 8333. Most probabilities of
# many labels are then a single 0.
PROBABILITY_UNITS = 10_000
WEIGHT_UNITS = 100

# -----------------------------------------------------------------------------
# the page


def write_browser(folder, runs, parent, name, evaluation, log):
    """
    Writes report.html of the run in `folder`. Returns its path.

    runs are the folders of all seeds or folds in `parent`, name is the run's in the title;
    evaluation is what evaluation.json holds, or {}; log is what metrics.jsonl holds. The folders
    are Paths. ValueError if a file cannot be read or written.
    """
    content = collect(folder, runs, parent, evaluation, log)
    path = folder / 'report.html'
    write_whole(path, make_page({'name': name} | content))
    return path


def make_page(content):
    """What `collect` returns -> the text of the HTML file."""
    page = (WEB_DIR / 'report.html').read_text(encoding='utf-8')
    style = (WEB_DIR / 'report.css').read_text(encoding='utf-8')
    script = (WEB_DIR / 'report.js').read_text(encoding='utf-8')
    page = page.replace('/* report.css */', style)
    page = page.replace('/* report.js */', script)
    # last, so that nothing is replaced within the data
    return page.replace('{"data": "of the run"}', embed_json(content))


def embed_json(content):
    """
    JSON that can stand in a <script> element: a text in it cannot end that element.

    Example: ['</script>'] -> ["\\u003c/script>"]
    """
    text = to_json(content, ensure_ascii=False, separators=(',', ':'))
    text = text.replace('<', '\\u003c')
    # older JavaScript takes these two for ends of lines
    text = text.replace('\u2028', '\\u2028').replace('\u2029', '\\u2029')
    # half of a surrogate pair, which a .jsonl file can hold, has no UTF-8
    return text.encode('utf-8', 'replace').decode('utf-8')


# -----------------------------------------------------------------------------
# what it shows


def collect(folder, runs, parent, evaluation, log):
    """What report.js reads, as a dict; see `write_browser` for the arguments."""
    rows, labels, logits = read_predictions(folder)
    if not rows:
        what = f'{folder}/predictions.csv holds no texts'
        raise ValueError(f'{what}; run {evaluate_command(folder)}')
    targets = np.array([row['truth'] for row in rows])
    predictions = np.array([row['guess'] for row in rows])
    is_right = targets == predictions
    table = metrics.confusion(targets, predictions, len(labels))

    texts = text_columns(folder, rows)
    temperature = evaluation.get('temperature', 1)
    probabilities = metrics.softmax(logits / temperature)
    scaled = np.rint(probabilities * PROBABILITY_UNITS).astype(int)

    return {
        'about': about_run(evaluation, len(rows)),
        'scores': headline_scores(evaluation, logits, targets, labels),
        'baselines': evaluation.get('baseline', {}),
        'coverage': evaluation.get('coverage', []),
        'labels': labels,
        'n_known': logits.shape[1],
        'label_scores': label_scores(table, labels),
        'confusion': table.tolist(),
        'curves': learning_curves(log, evaluation.get('best')),
        'reliability': reliability(logits, predictions, is_right, temperature),
        'lengths': accuracy_by_length(np.array(texts['tokens']), is_right),
        'tags': accuracy_by_tag(texts['tags'], is_right),
        'texts': texts,
        'probabilities': scaled.ravel().tolist(),
        'explanations': read_explanations(folder, texts),
        'suspects': read_suspects(parent),
        'runs': run_scores(runs),
    }


def text_columns(folder, rows):
    """The rows of predictions.csv -> {name: a value for each text}. Tags are lists of names."""
    try:
        return {
            'row': [int(row['row']) for row in rows],
            'text': [row['text'] for row in rows],
            'truth': [row['truth'] for row in rows],
            'guess': [row['guess'] for row in rows],
            'confidence': [round(float(row['confidence']), 4) for row in rows],
            'margin': [round(float(row['margin']), 4) for row in rows],
            'loss': [finite_loss(row['loss']) for row in rows],
            'tokens': [int(row['tokens']) for row in rows],
            'truncated': [int(row['truncated'] == 'True') for row in rows],
            'tags': [row['tags'].split() for row in rows],
        }
    except (KeyError, ValueError) as error:
        what = f'{folder}/predictions.csv cannot be read ({error})'
        raise ValueError(f'{what}; run {evaluate_command(folder)}') from None


def finite_loss(cell):
    """'0.12345' -> 0.1235; 'inf', which JSON does not know, -> None"""
    loss = float(cell)
    if not math.isfinite(loss):
        return None
    return round(loss, 4)


def about_run(evaluation, n):
    """What the run is: its data, its size and the command that made it, as far as is known."""
    keys = ('dataset', 'split', 'n_train', 'n_params', 'git')
    about = {key: evaluation[key] for key in keys if key in evaluation}
    if 'command' in evaluation:
        about['command'] = command_without_folders(evaluation['command'])
    return {'n': n} | about


def headline_scores(evaluation, logits, targets, labels):
    """The scores in evaluation.json; without that file, those that the predictions give."""
    scores = evaluation or metrics.score(logits, targets, labels)
    keys = ('accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci', 'nll')
    keys += ('ece', 'ece_calibrated', 'temperature')
    return {key: scores[key] for key in keys if key in scores}


def label_scores(table, labels):
    """Precision, recall and F1 of each label with intervals, a dict for each, in their order."""
    n_predicted = table.sum(axis=0)
    scores = list(metrics.per_class(table, labels).values())
    for i in range(len(labels)):
        hits = int(table[i, i])
        scores[i]['precision_ci'] = metrics.share_ci(hits, int(n_predicted[i]))
        scores[i]['recall_ci'] = metrics.share_ci(hits, scores[i]['support'])
    return scores


# -----------------------------------------------------------------------------
# plots


def learning_curves(log, best):
    """
    The lines of metrics.jsonl -> {name: points [epoch, value]}, and the epoch of the best
    evaluation or None.
    """
    steps = [line for line in log if 'loss' in line]
    evaluations = [line for line in log if 'val_loss' in line]
    every = max(1, math.ceil(len(steps) / MAX_CURVE_POINTS))
    curves = {'loss': curve_points(steps[::every], 'loss')}
    for name in ('train_loss', 'val_loss', 'val_accuracy', 'val_macro_f1'):
        curves[name] = curve_points(evaluations, name)
    best_epoch = None
    if best is not None:
        best_epoch = best['epoch']
    return curves | {'best_epoch': best_epoch}


def curve_points(lines, name):
    """The points [epoch, value] of the lines that have this value."""
    points = []
    for line in lines:
        value = line.get(name)
        if value is not None:
            points.append([round(line['epoch'], 4), round(value, 4)])
    return points


def reliability(logits, predictions, is_right, temperature):
    """The reliability diagram before and after calibration, a dict for each of the two curves."""
    variants = [('as trained', 1)]
    if temperature != 1:
        variants.append(('calibrated', temperature))
    curves = []
    for name, divisor in variants:
        probabilities = metrics.softmax(logits / divisor)
        confidence = probabilities[np.arange(len(predictions)), predictions]
        mean_confidence, share_right, sizes = metrics.reliability_bins(confidence, is_right)
        intervals = []
        for share, size in zip(share_right, sizes):
            intervals.append(metrics.share_ci(round(share * size), int(size)))
        curve = {
            'name': name,
            'ece': metrics.calibration_error(confidence, is_right),
            'confidence': mean_confidence.round(4).tolist(),
            'share': share_right.round(4).tolist(),
            'ci': intervals,
            'n': sizes.tolist(),
        }
        curves.append(curve)
    return curves


def accuracy_by_length(lengths, is_right):
    """The bins of the picture length.png, a dict for each."""
    n_bins = max(1, min(8, len(lengths) // 20))
    groups = []
    for shortest, longest, n, n_right in metrics.length_bins(lengths, is_right, n_bins):
        group = {'shortest': shortest, 'longest': longest, 'n': n, 'right': n_right}
        groups.append(group | {'ci': metrics.share_ci(n_right, n)})
    return groups


def accuracy_by_tag(tags, is_right):
    """The tags of each text -> a dict for each tag that a text has, in the order of TAGS."""
    n = dict.fromkeys(TAGS, 0)
    n_right = dict.fromkeys(TAGS, 0)
    for tags_of_text, right in zip(tags, is_right):
        for tag in tags_of_text:
            n[tag] = n.get(tag, 0) + 1
            n_right[tag] = n_right.get(tag, 0) + int(right)
    groups = []
    for tag in n:
        if n[tag] > 0:
            interval = metrics.share_ci(n_right[tag], n[tag])
            groups.append({'name': tag, 'n': n[tag], 'right': n_right[tag], 'ci': interval})
    return groups


# -----------------------------------------------------------------------------
# files that a run may have


EXPLANATION = {'row': int, 'label': str, 'kind': str, 'pieces': list, 'weights': list}


def read_explanations(folder, texts):
    """
    explanations.jsonl -> {row: which pieces of its text carried the label}, {} without that file.

    Instead of the pieces there are their lengths, because the page has the texts already. Rows that
    are not among the texts are left out.
    """
    path = folder / 'explanations.jsonl'
    if path.exists():
        check_table(folder, 'explanations')
    text_of_row = dict(zip(texts['row'], texts['text']))
    explanations = {}
    for line in read_json_lines(path):
        try:
            check_fields(line, EXPLANATION, {}, 'a line')
            pieces = line['pieces']
            weights = [round(WEIGHT_UNITS * weight) for weight in line['weights']]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f'{path} cannot be used: {error}; remove it') from None
        row = line['row']
        if row not in text_of_row:
            continue
        if ''.join(pieces) != text_of_row[row] or len(weights) != len(pieces):
            what = f'{path}: the pieces of row {row} are not those of its text in predictions.csv'
            raise ValueError(f'{what}; explain the texts again, or remove this file')
        lengths = [utf16_length(piece) for piece in pieces]
        explanation = {'label': line['label'], 'kind': line['kind']}
        explanations[row] = explanation | {'lengths': lengths, 'weights': weights}
    return explanations


def utf16_length(text):
    """The length of a text as JavaScript counts it: an emoji is 2 long."""
    return len(text.encode('utf-16-le', 'surrogatepass')) // 2


SUSPECT_COLUMNS = ('row', 'text', 'label', 'suggested', 'p_label', 'p_suggested', 'fold')


def read_suspects(parent):
    """
    suspects.csv -> {name: a value for each text} of the most suspicious texts, and how many there
    are in all; None without that file.
    """
    path = parent / 'suspects.csv'
    if not path.exists():
        return None
    csv.field_size_limit(MAX_CELL)
    suspects = {column: [] for column in SUSPECT_COLUMNS}
    n_suspects = 0
    try:
        with open(path, newline='', encoding='utf-8-sig', errors='replace') as f:
            for row in csv.DictReader(f, restval=''):
                n_suspects += 1
                if n_suspects > MAX_SUSPECTS:
                    continue
                suspects['row'].append(int(row['row']))
                suspects['text'].append(unquote_formula(row['text']))
                suspects['label'].append(row['label'])
                suspects['suggested'].append(row['suggested'])
                suspects['p_label'].append(round(float(row['p_label']), 4))
                suspects['p_suggested'].append(round(float(row['p_suggested']), 4))
                suspects['fold'].append(row['fold'])
    except (KeyError, ValueError):  # whose message may hold a whole cell
        what = f'{path}: row {n_suspects} does not fit the header'
        raise ValueError(f'{what}; write it again, or remove it') from None
    except (OSError, csv.Error) as error:
        raise ValueError(f'{path} cannot be read ({error}); write it again, or remove it') from None
    return suspects | {'n': n_suspects}


def run_scores(runs):
    """The scores of all seeds or folds, a dict for each one that was evaluated; [] of one run."""
    if len(runs) < 2:
        return []
    scores = []
    for run in runs:
        path = run / 'evaluation.json'
        if not path.exists():
            continue
        evaluation = read_evaluation(path, f'run {evaluate_command(run)}')
        keys = ('n', 'accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci')
        scores_of_run = {key: evaluation[key] for key in keys if key in evaluation}
        scores.append({'name': run.resolve().name} | scores_of_run)
    return scores
