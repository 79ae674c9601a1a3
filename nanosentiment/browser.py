"""
report.html: one page on which a run's errors can be looked through, without a server or a network.

browser.py collects what the page shows; the page itself is nanosentiment/web/report.html, .css and
.js, which are put into one file together with the data. Everything that needs statistics is
computed here, so that the page has only to filter, sort and draw.
"""

import base64
import csv
import math
import zlib
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
    read_all_predictions,
    read_evaluation_if_any,
    unquote_formula,
)
from nanosentiment.repeats import are_folds

WEB_DIR = Path(__file__).parent / 'web'

# a curve of more points would look the same, and make the file larger
MAX_CURVE_POINTS = 1000

# the scores at the top of the page
SCORES = ('accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci', 'nll')
SCORES += ('ece', 'ece_calibrated', 'temperature')

# nobody looks through more of them on a page; suspects.csv has all
MAX_SUSPECTS = 500

# Probabilities and weights are written as whole numbers: 0.8333 as 8333. Most probabilities of
# many labels are then a single 0.
PROBABILITY_UNITS = 10_000
WEIGHT_UNITS = 100

# -----------------------------------------------------------------------------
# the page


def write_browser(folder, runs, parent, name, log):
    """
    Writes report.html of the run in `folder`, which is named `name` in its title. Returns its path.

    runs are the folders of all seeds or folds in `parent`, log is what metrics.jsonl of the run
    holds. The folders are Paths. Folds have one page together, in `parent`: each text was predicted
    by one of them. ValueError if a file cannot be read or written.
    """
    shown_runs = [folder]
    path = folder / 'report.html'
    if are_folds(runs):
        shown_runs = runs
        path = parent / 'report.html'
    content = collect(shown_runs, runs, parent, log)
    write_whole(path, make_page({'name': name} | content))
    return path


def make_page(content):
    """What `collect` returns -> the text of the HTML file."""
    page = (WEB_DIR / 'report.html').read_text(encoding='utf-8')
    style = (WEB_DIR / 'report.css').read_text(encoding='utf-8')
    script = (WEB_DIR / 'report.js').read_text(encoding='utf-8')
    page = page.replace('/* report.css */', style)
    page = page.replace('/* report.js */', script)
    return page.replace('the data of the run', pack(content))


def pack(content):
    """
    A JSON value, compressed to about a quarter, in letters that no browser takes for markup.

    report.js unpacks it: zlib's format is what browsers call deflate.
    """
    text = to_json(content, ensure_ascii=False, separators=(',', ':'))
    # half of a surrogate pair, which a .jsonl file can hold, has no UTF-8
    compressed = zlib.compress(text.encode('utf-8', 'replace'))
    return base64.b64encode(compressed).decode('ascii')


# -----------------------------------------------------------------------------
# what it shows


def collect(shown_runs, runs, parent, log):
    """
    What report.js reads, as a dict. shown_runs are the runs whose texts are shown, one or all
    folds; see `write_browser` for the other arguments.
    """
    evaluations = [read_evaluation_if_any(run) for run in shown_runs]
    rows, labels, logits, temperatures = read_all_predictions(shown_runs)
    if not rows:
        what = f'{shown_runs[0]}/predictions.csv holds no texts'
        raise ValueError(f'{what}; run {evaluate_command(shown_runs[0])}')
    targets = np.array([row['truth'] for row in rows])
    predictions = np.array([row['guess'] for row in rows])
    is_right = targets == predictions
    table = metrics.confusion(targets, predictions, len(labels))

    texts = text_columns(shown_runs[0], rows)
    calibrated_logits = logits / temperatures[:, None]
    probabilities = metrics.softmax(calibrated_logits)
    scaled = np.rint(probabilities * PROBABILITY_UNITS).astype(int)
    explanations = {}
    for run in shown_runs:
        explanations |= read_explanations(run, texts)

    content = describe_scores(evaluations, logits, calibrated_logits, targets, labels)
    return content | {
        'about': about_run(evaluations, len(rows)),
        'labels': labels,
        'n_known': logits.shape[1],
        'label_scores': label_scores(table, labels),
        'confusion': table.tolist(),
        'curves': learning_curves(log, evaluations),
        'reliability': reliability(logits, calibrated_logits, predictions, is_right),
        'lengths': accuracy_by_length(np.array(texts['tokens']), is_right),
        'tags': accuracy_by_tag(texts['tags'], is_right),
        'texts': texts,
        'probabilities': scaled.ravel().tolist(),
        'explanations': explanations,
        'suspects': read_suspects(parent, texts, labels),
        'runs': run_scores(runs),
    }


def describe_scores(evaluations, logits, calibrated_logits, targets, labels):
    """
    The scores at the top of the page, the baselines and the coverage: those of evaluation.json.
    Without that file, and of several folds, they are computed from the predictions.
    """
    if len(evaluations) == 1 and evaluations[0]:
        [scores] = evaluations
        baselines = scores['baseline']
        coverage = scores.get('coverage', [])
    else:
        scores = metrics.score(logits, targets, labels)
        scores['ece'] = metrics.ece(metrics.softmax(logits), targets)
        if evaluations[0]:  # else the temperature is not known
            scores['ece_calibrated'] = metrics.ece(metrics.softmax(calibrated_logits), targets)
        baselines = sum_baselines(evaluations)
        coverage = []
    shown_scores = {key: scores[key] for key in SCORES if key in scores}
    return {'scores': shown_scores, 'baselines': baselines, 'coverage': coverage}


def sum_baselines(evaluations):
    """The scores of the baselines over the texts of all folds, as evaluation.json has them."""
    scores = {}
    for name in ('majority', 'bag_of_words'):
        tables = []
        for evaluation in evaluations:
            baseline = evaluation.get('baseline', {}).get(name) or {}
            if 'confusion' in baseline:
                tables.append(baseline['confusion'])
        if len(tables) == len(evaluations):
            table = np.sum(tables, axis=0)
            scores[name] = {
                'accuracy': float(metrics.accuracy(table)),
                'macro_f1': float(metrics.macro_f1(table)),
            }
    return scores


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


def about_run(evaluations, n):
    """What the run is: its data, its size and the command that made it, as far as is known."""
    evaluation = evaluations[0]
    keys = ['dataset', 'split', 'n_params', 'git']
    if len(evaluations) == 1:
        keys.append('n_train')
    about = {key: evaluation[key] for key in keys if key in evaluation}
    if 'command' in evaluation:
        command = command_without_folders(evaluation['command'])
        if len(evaluations) > 1:
            command = f'{command}  # the first of {len(evaluations)} folds'
        about['command'] = command
    return {'n': n} | about


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


def learning_curves(log, evaluations):
    """
    The lines of metrics.jsonl -> {name: points [epoch, value]}, and the epoch of the best
    evaluation or None. Folds have a log each, so there are no curves of all of them.
    """
    best_epoch = None
    if len(evaluations) > 1:
        log = []
    elif evaluations[0].get('best'):
        best_epoch = evaluations[0]['best']['epoch']
    steps = [line for line in log if 'loss' in line]
    validations = [line for line in log if 'val_loss' in line]
    every = max(1, math.ceil(len(steps) / MAX_CURVE_POINTS))
    curves = {'loss': curve_points(steps[::every], 'loss')}
    for name in ('train_loss', 'val_loss', 'val_accuracy', 'val_macro_f1'):
        curves[name] = curve_points(validations, name)
    return curves | {'best_epoch': best_epoch}


def curve_points(lines, name):
    """The points [epoch, value] of the lines that have this value."""
    points = []
    for line in lines:
        value = line.get(name)
        if value is not None:
            points.append([round(line['epoch'], 4), round(value, 4)])
    return points


def reliability(logits, calibrated_logits, predictions, is_right):
    """The reliability diagram before and after calibration, a dict for each of the two curves."""
    variants = [('as trained', logits)]
    if not np.array_equal(logits, calibrated_logits):
        variants.append(('calibrated', calibrated_logits))
    curves = []
    for name, logits_of_variant in variants:
        probabilities = metrics.softmax(logits_of_variant)
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
    groups = []
    for shortest, longest, n, n_right in metrics.length_bins(lengths, is_right):
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


def read_suspects(parent, texts, labels):
    """
    suspects.csv -> {name: a value for each text} of the most suspicious texts, and how many there
    are in all; None without that file. ValueError if a text or a label is not that of the
    predictions: these are newer then.
    """
    path = parent / 'suspects.csv'
    if not path.exists():
        return None
    csv.field_size_limit(MAX_CELL)
    suspects = {column: [] for column in SUSPECT_COLUMNS}
    n_suspects = 0
    names = [labels[truth] for truth in texts['truth']]
    text_and_label = dict(zip(texts['row'], zip(texts['text'], names)))
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
    for row, text, label in zip(suspects['row'], suspects['text'], suspects['label']):
        if text_and_label.get(row, (text, label)) != (text, label):
            what = f'{path} is older than the predictions'
            remedy = f'run python evaluate.py --out_dir={parent} --suspects=True, or remove it'
            raise ValueError(f'{what}; {remedy}')
    return suspects | {'n': n_suspects}


def run_scores(runs):
    """The scores of all seeds or folds, a dict for each one that was evaluated; [] of one run."""
    if len(runs) < 2:
        return []
    scores = []
    for run in runs:
        evaluation = read_evaluation_if_any(run)
        if not evaluation:
            continue
        keys = ('n', 'accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci')
        scores_of_run = {key: evaluation[key] for key in keys if key in evaluation}
        scores.append({'name': run.resolve().name} | scores_of_run)
    return scores
