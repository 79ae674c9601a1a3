"""
Evaluates a run: predictions on a split or a labelled file, scores, and tables for people.

`split_examples` or `file_examples` collects the texts and their labels. `evaluate` lets the run
classify them, computes the scores and writes these files into the run's folder:

    predictions.csv      one row per text, with the columns that predictions.py lists
    errors.csv           the wrong ones among them, most confident first
    explanations.jsonl   of some errors, which words carried the wrong label, see explain.py
    evaluation.json      the scores, the baselines, and how the run was made

The rest compares two runs on the same texts, and shows the scores.
"""

import contextlib
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from configurator import printable
from nanosentiment.baseline import fit_baselines, split_labels
from nanosentiment.cleaning import clean
from nanosentiment.columns import check_keys, find_columns, parse_columns, row_label, row_text
from nanosentiment.datasets import find_raw
from nanosentiment.error_tags import TAGS, tag_text
from nanosentiment.explain import explain
from nanosentiment.files import checksum, hide_home, open_whole, to_json, write_sealed_json
from nanosentiment.labels import label_order, parse_label_names, shorten
from nanosentiment.memmaps import Split, read_meta
from nanosentiment.metrics import (
    METRICS,
    compare,
    ece,
    format_metric,
    printed_name,
    score,
    share_ci,
    softmax,
)
from nanosentiment.pairs import show_pair
from nanosentiment.predictions import (
    check_table,
    evaluate_command,
    output_paths,
    prediction_columns,
    read_table,
    write_table,
)
from nanosentiment.rejections import Rejections, describe_rejected
from nanosentiment.repeats import are_folds, find_runs
from nanosentiment.scanning import say
from nanosentiment.tables import Table

# confidences below which an application might pass a text on to a person
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

# with more labels that the run does not know, a file's label column holds something else
MAX_UNKNOWN_LABELS = 1000

# -----------------------------------------------------------------------------
# the texts to evaluate on


@dataclass
class Examples:
    """n labelled texts, ready for a classifier."""

    record_numbers: np.ndarray  # (n,) in the raw file, from 0
    texts: list  # n raw texts
    labels: list  # names: those of the run, then those that it does not know
    targets: np.ndarray  # (n,) int64 numbers of the true labels
    ids: object  # a sequence of n arrays of token ids, as Classifier.logits takes them
    lengths: np.ndarray  # (n,) number of tokens before the cut
    baseline: dict = field(default_factory=dict)  # of baseline.py; a file has none
    split_sizes: dict = field(default_factory=dict)  # split -> number of texts; a file has none


def report_unknown(where, labels, targets, n_known):
    """One line on stderr if some texts have labels that are not among the run's, the first ones."""
    n_unknown = int((targets >= n_known).sum())
    if n_unknown > 0:
        names = shorten(labels[n_known:])
        what = f'{where}: {n_unknown} of {len(targets)} texts have a label unknown to the run'
        say(f'{what} ({names}); they count as wrong answers')


# a split


def split_examples(classifier, folder, split, settings=None):
    """
    The examples of one split ('train', 'val' or 'test') of a prepared folder.

    settings say where the raw files are; None: where they were in training. Raises ValueError if
    the folder holds other data than the run was trained on, or no such split.
    """
    if settings is None:
        settings = classifier.checkpoint['settings']
    recipe = classifier.checkpoint['recipe']
    meta = read_meta(folder)
    if meta['recipe'] != recipe:
        what = f'{folder} holds other data than {classifier.path} was trained on'
        raise ValueError(f'{what}; restore that data, or name a labelled file: --input=')
    if split not in meta['rows']:
        what = f'{folder} has no {split} split, but {", ".join(meta["rows"])}'
        raise ValueError(f'{what}; choose one of these, or name a labelled file: --input=')

    whole_texts = Split(folder, split)
    targets = whole_texts.labels.astype(np.int64)
    labels = split_labels(meta, split)
    if targets.min() >= len(classifier.labels):
        what = f'the {split} split of {folder} has no label of the run, but {shorten(labels)}'
        raise ValueError(f'{what}; choose another split')
    report_unknown(f'{split} split', labels, targets, len(classifier.labels))

    ids = whole_texts
    if not classifier.windows:
        keep = classifier.checkpoint['settings']['keep']
        ids = Split(folder, split, classifier.block_size, keep)
    texts = read_split_texts(classifier, settings, split, whole_texts.rows)
    all_splits = {name: Split(folder, name) for name in meta['rows']}
    baseline = fit_baselines(folder, all_splits, classifier.tokenizer)
    return Examples(
        record_numbers=whole_texts.rows,
        texts=texts,
        labels=labels,
        targets=targets,
        ids=ids,
        lengths=whole_texts.lengths,
        baseline=baseline,
        split_sizes=meta['rows'],
    )


def read_split_texts(classifier, settings, split, record_numbers):
    """
    The raw texts of a split, because its memmaps hold only tokens.

    settings say where the raw files are; record_numbers (n,) are in ascending order.
    """
    recipe = classifier.checkpoint['recipe']
    data_dir = os.path.expanduser(settings['data_dir'])
    paths = find_raw(settings['dataset'], data_dir, settings['test_file'], settings['val_file'])
    # only a split that has no file of its own is a part of the training file
    path = paths['train']
    if split in recipe['raw']:
        path = paths[split]
    table = Table(path, **recipe['table'])
    columns = parse_columns(recipe['columns'][0], table.columns)
    pair_columns = find_pair_columns(classifier, table)
    wanted = set(record_numbers.tolist())
    texts = []
    for number, (_, row, _) in enumerate(table):
        if number in wanted:
            text, _ = row_text(row, columns, pair_columns)
            texts.append(text)
    assert len(texts) == len(record_numbers), (path, len(texts), len(record_numbers))
    return texts


def find_pair_columns(classifier, table, text_pair_column=''):
    """
    The columns of the second text; [] if the texts are single ones.

    text_pair_column '' is that of the training. ValueError if one is given to a run that was
    trained with single texts.
    """
    if text_pair_column and not classifier.has_pairs:
        raise ValueError(
            f'text_pair_column={text_pair_column}, but the run was trained with single texts; '
            'leave it out'
        )
    column = text_pair_column or classifier.checkpoint['recipe'].get('text_pair_column', '')
    return parse_columns(column, table.columns) if column else []


# a file


def file_examples(
    classifier, table, text_column='', label_column='', text_pair_column='', label_names=''
):
    """
    The examples of a labelled file, a Table.

    Columns that are not given have the names of the training data. label_names are other names for
    the file's labels, see labels.parse_label_names. Rows that cannot be used are left out, and
    those with a label that the run does not know count as wrong: stderr says how many they are.
    Raises ValueError if a column is missing, or if no row has a label that the run knows.
    """
    path = table.path
    recipe = classifier.checkpoint['recipe']
    text_column = text_column or recipe['columns'][0]
    label_column = label_column or recipe['columns'][1]
    for note in table.notes:
        say(f'{path}: {note}')
    pair_columns = find_pair_columns(classifier, table, text_pair_column)
    columns = find_columns(
        table, text_column, label_column, text_pair_column=','.join(pair_columns)
    )

    rejections = Rejections(
        {
            'text_column': text_column,
            'label_column': label_column,
            'split_column': '',
            'text_pair_column': ','.join(pair_columns),
        }
    )
    names_of_labels = find_label_names(recipe) | parse_label_names(label_names)
    text_columns = columns['text_column']
    rows = read_examples(
        table, text_columns, label_column, names_of_labels, rejections, pair_columns
    )
    check_keys(table, columns)
    names = [name for _, _, name in rows]
    report_rejected(path, rejections.summary(Counter(names)))

    labels = extend_labels(classifier.labels, names, path, label_column)
    number_of = {label: number for number, label in enumerate(labels)}
    targets = np.array([number_of[name] for name in names])
    report_unknown(path, labels, targets, len(classifier.labels))

    texts = [text for _, text, _ in rows]
    encoded = classifier.encode(texts)
    return Examples(
        record_numbers=np.array([number for number, _, _ in rows]),
        texts=texts,
        labels=labels,
        targets=targets,
        ids=[classifier.truncate(np.array(text_ids)) for text_ids in encoded],
        lengths=np.array([len(text_ids) for text_ids in encoded]),
    )


def read_examples(table, text_columns, label_column, label_names, rejections, pair_columns=()):
    """The usable rows of a table: a list of (record number, text, label). Counts the others."""
    examples = []
    for number, (line_number, row, reason) in enumerate(table):
        rejections.n_rows += 1
        text, text_reason = row_text(row, text_columns, pair_columns)
        label, label_reason = row_label(row, label_column, label_names)
        reason = reason or text_reason or label_reason
        if reason:
            rejections.add(line_number, reason, label)
        else:
            examples.append((number, text, label))
    return examples


def report_rejected(path, summary):
    """One line on stderr if some rows cannot be used. ValueError if no row can."""
    n_rows = summary['rows']
    n_rejected = summary['rejected']
    if n_rows == 0:
        raise ValueError(f'{path} has no rows; is it the right file?')
    if n_rejected == 0:
        return
    line = describe_rejected(path, summary)
    remedy = summary['remedy'] or 'correct these rows'
    if n_rejected == n_rows:
        raise ValueError(f'{line}; {remedy}')
    say(f'{line}, and they are left out; {remedy}')


def find_label_names(recipe):
    """{label of a file: its name}. Runs of older versions have it under another key."""
    if 'label_names' in recipe:
        return recipe['label_names']
    return recipe['names']


def extend_labels(known, names, path, label_column):
    """The labels that a run knows, and after them the others among the names in a file."""
    unknown = sorted(set(names).difference(known), key=label_order)
    has_known = not set(names).isdisjoint(known)
    if not has_known or len(unknown) > MAX_UNKNOWN_LABELS:
        what = f'{path}: label {shorten(unknown)} is unknown'
        known_labels = f'the labels of this run are {shorten(known)}'
        remedy = f'is --label_column={label_column} right? --label_names can rename labels'
        raise ValueError(f'{what}; {known_labels}; {remedy}')
    return known + unknown


# -----------------------------------------------------------------------------
# evaluation


def evaluate(classifier, examples, out_dir, split='test', input='', batch_size=64, n_explained=50):
    """
    Classifies the examples, writes the files and returns what evaluation.json holds.

    out_dir is the run's folder, or the .pt file that is evaluated; split and input say where the
    examples are from, and are part of the files' names. See `predictions.output_paths`. Of the
    most confident errors n_explained are explained, which takes as many forward passes as they have
    words; explanations.jsonl is only there if some are. Raises ValueError if the files cannot be
    written.
    """
    paths = output_paths(out_dir, split, input, classifier.windows)
    check_writable(os.path.dirname(paths['evaluation']) or '.')

    logits = classifier.predict(examples.ids, batch_size)
    predictions = logits.argmax(axis=1)
    probabilities = classifier.probabilities(logits)
    confidence = probabilities.max(axis=1)
    is_wrong = predictions != examples.targets
    tags = tags_per_text(classifier, examples)

    evaluation = {
        'run': out_dir,
        'split': '' if input else split,
        'input': input,
        'windows': classifier.windows,
        'device': classifier.device,
        'dtype': str(classifier.dtype),
    }
    evaluation |= score(logits, examples.targets, examples.labels)
    evaluation['ece'] = ece(softmax(logits), examples.targets)
    evaluation['ece_calibrated'] = ece(probabilities, examples.targets)
    evaluation['temperature'] = classifier.temperature
    evaluation['coverage'] = coverage(confidence, is_wrong)
    evaluation['tags'] = errors_by_tag(tags, is_wrong)
    evaluation['baseline'] = baseline_scores(examples.baseline, split)
    evaluation |= describe_run(classifier, examples)

    columns = prediction_columns(
        classifier, examples, logits, probabilities, predictions, confidence, tags
    )
    errors = np.flatnonzero(is_wrong)
    most_confident_first = np.argsort(-confidence[errors], kind='stable')
    write_table(paths['predictions'], columns, range(len(logits)))
    write_table(paths['errors'], columns, errors[most_confident_first])
    rows_to_explain = errors[most_confident_first][:n_explained]
    write_explanations(paths['explanations'], classifier, examples, rows_to_explain, batch_size)
    if len(rows_to_explain) == 0:
        del paths['explanations']
    evaluation['files'] = paths
    tables = [name for name in paths if name != 'evaluation']
    evaluation['checksums'] = {name: checksum(paths[name]) for name in tables}
    write_sealed_json(paths['evaluation'], hide_home(evaluation))
    return evaluation


def write_explanations(path, classifier, examples, rows, batch_size):
    """
    Explains the predictions of some rows, numbers (m,) of examples, in a file of JSON lines: what
    explain.py gives, and the number of the row in the raw file. Without rows an older file goes.
    """
    if len(rows) == 0:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        return
    explanations = explain(classifier, [examples.texts[i] for i in rows], batch_size)
    with open_whole(path, encoding='utf-8') as f:
        for i, explanation in zip(rows, explanations):
            line = {'row': int(examples.record_numbers[i])} | explanation
            line['pieces'] = [show_pair(piece) for piece in line['pieces']]
            f.write(to_json(line) + '\n')


def check_writable(folder):
    """ValueError if no file can be written into a folder; better now than after the evaluation."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = 'copy the run to a folder that you can write, and name it with --out_dir'
        raise ValueError(f'{folder} cannot be written ({error.strerror}); {remedy}') from None


def tags_per_text(classifier, examples):
    """A list of tags for each text. They are those of the clean text, which the model reads."""
    # a labelled file has no baseline, so the words of the training texts are not known
    known_words = set(examples.baseline.get('words', ())) or None
    tags = []
    for text, length in zip(examples.texts, examples.lengths):
        cleaned = clean(text, classifier.checkpoint['recipe'])
        is_truncated = classifier.is_truncated(length)
        tags.append(tag_text(cleaned, is_truncated, known_words))
    return tags


def coverage(confidence, is_wrong):
    """
    confidence, is_wrong (n,) -> a list of [threshold, share of texts at least so confident,
    accuracy on these]. The accuracy is None where there are none.
    """
    rows = []
    for threshold in THRESHOLDS:
        is_confident = confidence >= threshold
        share = float(is_confident.mean())
        accuracy = None
        if is_confident.any():
            accuracy = float((~is_wrong)[is_confident].mean())
        rows.append([threshold, share, accuracy])
    return rows


def errors_by_tag(tags, is_wrong):
    """Lists of tags, is_wrong (n,) -> {tag: number of texts and errors, rate, 95 % interval}."""
    by_tag = {}
    for tag in TAGS:
        has_tag = [tag in tags_of_text for tags_of_text in tags]
        n = sum(has_tag)
        n_errors = int(is_wrong[has_tag].sum())
        rate = n_errors / n if n > 0 else None
        by_tag[tag] = {'n': n, 'errors': n_errors, 'rate': rate, 'ci': share_ci(n_errors, n)}
    return by_tag


def baseline_scores(baseline, split):
    """The two baselines' scores on a split; {} for a file. The training split has None for both."""
    if not baseline:
        return {}
    return {name: baseline[name].get(split) for name in ('majority', 'bag_of_words')}


def describe_run(classifier, examples):
    """How the run was made, for the model card."""
    about = {}
    for key in ('dataset', 'best', 'command', 'settings', 'versions', 'git'):
        about[key] = classifier.checkpoint.get(key)
    about['labels'] = examples.labels
    about['unknown_labels'] = examples.labels[len(classifier.labels) :]
    about['tokenizer'] = classifier.tokenizer.name
    about['n_params'] = classifier.model.num_params()
    for name, n in examples.split_sizes.items():
        about[f'n_{name}'] = n
    return about


# -----------------------------------------------------------------------------
# comparison of two runs


def predictions_by_text(runs, split='test', input='', windows=False):
    """
    The predictions of several evaluated runs -> two dicts with the same keys, {(row, text): label}
    and {(row, text): list of what each run predicted}.

    Folds are tested on different texts, so that each text has one prediction. Their validation
    splits overlap, so that they cannot be compared there. Raises ValueError for these, or if a run
    has no evaluation.
    """
    if are_folds(runs) and split != 'test' and not input:
        what = f'folds can be compared only on the test split, not on {split}'
        raise ValueError(f'{what}; leave out --split or --against')
    labels = {}
    predictions = {}
    for run in runs:
        path = output_paths(run, split, input, windows)['predictions']
        _, rows = read_table(path, evaluate_command(run, split, input, windows))
        check_table(run, 'predictions', split, input, windows)
        for row in rows:
            key = (row['row'], row['text'])
            labels.setdefault(key, row['label'])
            predictions.setdefault(key, []).append(row['prediction'])
    return labels, predictions


def compare_runs(run_a, run_b, split='test', input='', windows=False):
    """
    Is run a better than run b, or was it luck? Both must have been evaluated, in the same way.

    Each may be a folder of seeds or, on the test split only, of folds. Returns what
    `metrics.compare` does, with run b's name. Raises ValueError unless both were evaluated on the
    same texts with the same labels.
    """
    labels_a, predictions_a = predictions_by_text(find_runs(run_a), split, input, windows)
    labels_b, predictions_b = predictions_by_text(find_runs(run_b), split, input, windows)

    # the texts and true labels must be the same, and each text must have been read by as many runs
    n_runs_a = {len(names) for names in predictions_a.values()}
    n_runs_b = {len(names) for names in predictions_b.values()}
    if labels_a != labels_b or len(n_runs_a) != 1 or len(n_runs_b) != 1:
        what = f'{run_a} and {run_b} were evaluated on other rows'
        raise ValueError(f'{what}; evaluate {run_b} in the same way first')

    # one of the two may know a label that the other does not
    names = set(labels_a.values())
    for predicted_names in [*predictions_a.values(), *predictions_b.values()]:
        names.update(predicted_names)
    number_of = {name: i for i, name in enumerate(sorted(names))}

    targets = []
    numbers_a = []
    numbers_b = []
    for key, label in labels_a.items():
        targets.append(number_of[label])
        numbers_a.append([number_of[name] for name in predictions_a[key]])
        numbers_b.append([number_of[name] for name in predictions_b[key]])
    targets = np.array(targets)  # (n,)
    numbers_a = np.array(numbers_a)  # (n, number of runs)
    numbers_b = np.array(numbers_b)
    return {'run': run_b} | compare(targets, numbers_a, numbers_b, len(names))


# -----------------------------------------------------------------------------
# for people


def format_scores(scores, labels):
    """The dict of `metrics.score` -> a text: scores of each label beside the confusion table."""
    shown_labels = [printable(label) for label in labels]
    parts = []
    for name in METRICS:
        part = format_metric(name, scores[name])
        if name == 'accuracy':
            low, high = scores['accuracy_ci']
            part += f' [{low:.3f}, {high:.3f}]'
        parts.append(part)
    parts += [f'NLL {scores["nll"]:.3f}', f'n {scores["n"]}']
    lines = ['   '.join(parts)]

    # each confusion column is as wide as the longest label, within limits
    label_width = max(9, max(len(label) for label in shown_labels))
    cell_width = 2 + min(12, label_width)
    predicted = ''
    for label in shown_labels:
        predicted += f'{label[: cell_width - 2]:>{cell_width}}'
    lines.append(f'{"":{label_width}}  precision  recall     F1  support   predicted:{predicted}')
    for label, shown_label, counts in zip(labels, shown_labels, scores['confusion'], strict=True):
        label_scores = scores['per_class'][label]
        precision = label_scores['precision']
        line = f'{shown_label:{label_width}}  {precision:9.3f}  {label_scores["recall"]:6.3f}'
        line += f'  {label_scores["f1"]:5.3f}  {label_scores["support"]:7,}   {"":10}'
        for count in counts:
            line += f'{count:{cell_width},}'
        lines.append(line)
    return '\n'.join(lines)


def print_evaluation(evaluation):
    """Shows what `evaluate` returns."""
    where = f'{evaluation["device"]}, {evaluation["dtype"]}'
    texts = evaluation['input'] or evaluation['split']
    print(f'\n{where}; {evaluation["dataset"]}, {texts}:')
    print(format_scores(evaluation, evaluation['labels']))

    for baseline, scores in evaluation['baseline'].items():
        if scores is None:
            continue
        # from the counts, because baseline.json may be older than a metric
        table = np.array(scores['confusion'])
        parts = []
        for name, metric in METRICS.items():
            parts.append(format_metric(name, metric(table)))
        print(f'{baseline.replace("_", " "):14} {"   ".join(parts)}')

    temperature = evaluation['temperature']
    calibrated = f'at temperature {temperature:.2f} {evaluation["ece_calibrated"]:.3f}'
    print(f'calibration    ECE {evaluation["ece"]:.3f}, {calibrated}')

    parts = []
    for threshold, share, accuracy in evaluation['coverage']:
        if accuracy is not None:
            parts.append(f'{threshold:.2f}: {share:.0%} {accuracy:.3f}')
    print(f'coverage       confidence at least: share of texts, accuracy   {"   ".join(parts)}')

    parts = []
    for tag, errors in evaluation['tags'].items():
        if errors['n'] > 0:
            low, high = errors['ci']
            parts.append(f'{tag} {errors["errors"]}/{errors["n"]} [{low:.2f}, {high:.2f}]')
    print(f'errors         {1 - evaluation["accuracy"]:.1%} of all; by tag: {"   ".join(parts)}')


def print_comparison(comparison):
    """Shows what `compare_runs` returns."""
    against = comparison['run']
    for name in METRICS:
        difference = comparison[name]['difference']
        low, high = comparison[name]['ci']
        by = f'{difference:+.3f} [{low:+.3f}, {high:+.3f}]'
        print(f'{printed_name(name)} better than {against} by {by}')
    if 'mcnemar_p' in comparison:
        n_only_a = comparison['only_a_right']
        n_only_b = comparison['only_b_right']
        p = comparison['mcnemar_p']
        print(f'texts that only one of them has right: {n_only_a} and {n_only_b}')
        print(f'McNemar p = {p:.3f}')


def wandb_plots(wandb, evaluation, with_texts):
    """
    The confusion table of an evaluation as a plot of the wandb package, and with_texts a table of
    the errors, which shows the texts to whoever may see the run there.
    """
    # wandb counts pairs of label and prediction itself
    targets, predictions = [], []
    for target, counts in enumerate(evaluation['confusion']):
        for prediction, count in enumerate(counts):
            targets += [target] * count
            predictions += [prediction] * count
    confusion = wandb.plot.confusion_matrix(
        y_true=targets, preds=predictions, class_names=evaluation['labels']
    )
    if not with_texts:
        return {'confusion': confusion}

    where = [evaluation[name] for name in ('run', 'split', 'input', 'windows')]
    command = evaluate_command(*where)
    columns, rows = read_table(evaluation['files']['errors'], command)
    # wandb refuses very large tables
    cells = [list(row.values()) for row in rows[:1000]]
    return {'confusion': confusion, 'errors': wandb.Table(columns=columns, data=cells)}
