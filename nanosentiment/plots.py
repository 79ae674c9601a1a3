"""
The figures of report.py: learning curves, confusion matrix, reliability diagram, accuracy by
length of the text, and the accuracy of all runs (seeds or folds) beside the baselines.

Each draw_ function makes one figure of matplotlib from plain arrays and returns it; draw_figures
makes all of them, in the style below, and saves them. matplotlib is imported where it is used,
because most users train without it.
"""

import itertools
import sys
import unicodedata
import warnings

import numpy as np

from nanosentiment.files import open_whole
from nanosentiment.labels import shorten_line
from nanosentiment.metrics import (
    calibration_error,
    confusion,
    length_bins,
    reliability_bins,
    softmax,
    wilson,
)
from nanosentiment.predictions import read_predictions

# colours of Okabe and Ito, which colour-blind people can tell apart
# (https://jfly.uni-koeln.de/color/)
BLUE = '#0072B2'
RED = '#D55E00'
GREY = '#666666'
LIGHT_GREY = '#BBBBBB'
# for the runs of a comparison, which may be many
COLORS = (BLUE, RED, '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')

# What draw_figures draws with. A figure that is made without it has matplotlib's own style.
STYLE = {
    'font.size': 8,
    'lines.markersize': 4,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'savefig.dpi': 300,
}

# the numbers in the cells of a larger confusion matrix would be too small to read
MAX_LABELS_WITH_NUMBERS = 20
MAX_LABEL_WIDTH = 40  # characters of a label
INCHES_PER_CHARACTER = 0.065  # of 8 points, on average; Chinese characters are twice as wide


def new_figure(width, height):
    """An empty figure; width and height in inches."""
    # Figure itself, not pyplot: it needs no display
    from matplotlib.figure import Figure

    return Figure((width, height), layout='constrained')


# -----------------------------------------------------------------------------
# one function per figure


def draw_curves(log, best):
    """
    Loss on the left, validation scores on the right, over epochs.

    log is what metrics.jsonl holds: lines with 'loss' are steps, lines with 'val_loss' are
    evaluations. best is the evaluation whose weights were kept, or None if it is not known.
    """
    figure = new_figure(6.8, 2.7)
    loss_axes, score_axes = figure.subplots(1, 2)
    steps = [line for line in log if 'loss' in line]
    evaluations = [line for line in log if 'val_loss' in line]

    epochs = [line['epoch'] for line in evaluations]
    curves = [
        (loss_axes, 'train_loss', 's--', RED),
        (loss_axes, 'val_loss', 'o-', BLUE),
        (score_axes, 'val_accuracy', 's--', RED),
        (score_axes, 'val_macro_f1', 'o-', BLUE),
    ]
    for axes, name, line_style, color in curves:
        values = [line[name] for line in evaluations]
        axes.plot(epochs, values, line_style, color=color, label=name.replace('_', ' '))

    # the loss of single steps jumps, so it lies thin and grey behind the curves
    step_epochs = [line['epoch'] for line in steps]
    step_losses = [line['loss'] for line in steps]
    step_style = {'color': LIGHT_GREY, 'lw': 0.6, 'zorder': 0}
    loss_axes.plot(step_epochs, step_losses, **step_style, label='loss of a step')

    loss_axes.set_ylabel('loss (nats per text)')
    score_axes.set_ylabel('score')
    for axes in (loss_axes, score_axes):
        if best is not None:
            label = f'best checkpoint: epoch {best["epoch"]:.4g}'
            axes.axvline(best['epoch'], color=GREY, ls=':', label=label)
        axes.set_xlabel('epoch')
        axes.legend()
    return figure


def draw_comparison(logs):
    """
    The validation loss and accuracy of several runs over epochs, a colour for each run.

    logs is {name of a run: what its metrics.jsonl holds}.
    """
    figure = new_figure(6.8, 2.9)
    loss_axes, score_axes = figure.subplots(1, 2)
    for (name, log), color in zip(logs.items(), itertools.cycle(COLORS)):
        evaluations = [line for line in log if 'val_loss' in line]
        epochs = [line['epoch'] for line in evaluations]
        losses = [line['val_loss'] for line in evaluations]
        accuracies = [line['val_accuracy'] for line in evaluations]
        loss_axes.plot(epochs, losses, 'o-', color=color, label=name)
        score_axes.plot(epochs, accuracies, 'o-', color=color)
    loss_axes.set(xlabel='epoch', ylabel='validation loss (nats per text)')
    score_axes.set(xlabel='epoch', ylabel='validation accuracy')
    figure.legend(loc='outside upper center', ncols=3)
    return figure


def draw_confusion(table, labels):
    """A confusion table (K, K): the colour is the share of the true label, the text the count."""
    n_class = len(labels)
    names = [shorten_line(label, MAX_LABEL_WIDTH) for label in labels]
    name_inches = INCHES_PER_CHARACTER * max(text_width(name) for name in names)
    n_cells = min(n_class, 20)  # more labels get smaller cells, not a larger figure
    # the names below the table are slanted by 40 degrees, so they are about 0.7 of their width high
    figure = new_figure(1.7 + 0.6 * n_cells + name_inches, 1 + 0.5 * n_cells + 0.7 * name_inches)
    axes = figure.subplots()

    n_true = table.sum(axis=1, keepdims=True)
    shares = table / np.maximum(n_true, 1)
    image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    figure.colorbar(image, label='share of the true label')

    if n_class <= MAX_LABELS_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            text = f'{table[row, column]:,}\n{share:.0%}'
            color = 'white' if share > 0.5 else 'black'
            axes.text(column, row, text, ha='center', va='center', size=8, color=color)

    # parse_math: a label may hold a $, which would begin a formula
    positions = range(n_class)
    slanted = {'rotation': 40, 'ha': 'right', 'rotation_mode': 'anchor'}
    axes.set_xticks(positions, names, parse_math=False, **slanted)
    axes.set_yticks(positions, names, parse_math=False)
    axes.set(xlabel='predicted', ylabel='truth')
    return figure


def text_width(text):
    """The width of a text in Latin letters. A Chinese, Japanese or Korean character counts as 2."""
    return sum(2 if unicodedata.east_asian_width(character) in 'WF' else 1 for character in text)


def draw_reliability(logits, predictions, is_right, temperature):
    """
    How often predictions of each confidence are right, before and after dividing the logits by
    the temperature. The steps at the bottom show how many texts have which confidence.

    The confidence of a prediction is the probability that softmax gives to its label.
    logits (n, K); predictions (n,) label numbers; is_right (n,) bool.
    """
    figure = new_figure(3.6, 3.8)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=':', label='perfectly calibrated')

    variants = []
    if temperature != 1:
        variants.append((temperature, 'calibrated', 'o', '-', BLUE))
    variants.append((1, 'as trained', 's', '--', RED))
    for divisor, name, marker, line_style, color in variants:
        probabilities = softmax(logits / divisor)
        confidence = probabilities[np.arange(len(predictions)), predictions]
        mean_confidence, share_right, n_texts = reliability_bins(confidence, is_right)
        # with fewer than 10 texts per bin, a line through the points would only zigzag
        if n_texts[0] < 10:
            points_style = marker
        else:
            points_style = marker + line_style
        label = f'{name}, ECE {calibration_error(confidence, is_right):.3f}'
        axes.plot(mean_confidence, share_right, points_style, color=color, label=label)

        edges = np.linspace(0, 1, 21)
        counts = np.histogram(confidence, edges)[0]
        axes.stairs(counts / len(is_right), edges, color=color, ls=line_style, lw=0.8)

    axes.set(xlabel='confidence', ylabel='share right; steps: share of texts')
    # no prediction has less than 1 / K
    lowest = 1 / logits.shape[1]
    axes.set(xlim=(lowest - 0.02, 1.01), ylim=(0, 1.03))
    figure.legend(loc='outside upper center', ncols=2)
    return figure


def draw_lengths(lengths, is_right):
    """Accuracy of short and long texts: lengths in tokens (n,), is_right (n,) bool."""
    figure = new_figure(5, 3)
    axes = figure.subplots()

    names = []
    n_right = []
    n_texts = []
    for shortest, longest, n_texts_in_bin, n_right_in_bin in length_bins(lengths, is_right):
        names.append(f'{shortest}-{longest}\nn {n_texts_in_bin}')
        n_right.append(n_right_in_bin)
        n_texts.append(n_texts_in_bin)
    plot_accuracies(axes, n_right, n_texts, names)

    accuracy = is_right.mean()
    axes.axhline(accuracy, color=GREY, ls=':', label=f'all texts, {accuracy:.3f}')
    axes.set_xlabel('length of the text (tokens), number of texts')
    figure.legend(loc='outside upper center', ncols=2)
    return figure


def draw_seeds(n_right, n_texts, names, baselines):
    """
    Accuracy of each run: of n_texts texts it has n_right right, a list entry for each run.

    baselines is {name: scores or None}, as evaluation.json has it.
    """
    figure = new_figure(5, 3)
    axes = figure.subplots()
    accuracies = plot_accuracies(axes, n_right, n_texts, names)
    if len(accuracies) > 1:
        mean = accuracies.mean()
        label = f'mean {mean:.3f}, sd {accuracies.std(ddof=1):.3f}'
        axes.axhline(mean, color=BLUE, lw=0.8, label=label)
    for (name, scores), line_style in zip(baselines.items(), ('--', ':')):
        if scores:
            label = f'{name.replace("_", " ")}, {scores["accuracy"]:.3f}'
            axes.axhline(scores['accuracy'], color=GREY, ls=line_style, label=label)
    figure.legend(loc='outside upper center', ncols=2)
    return figure


def plot_accuracies(axes, n_right, n_texts, names):
    """Draws the accuracy n_right / n_texts of each group with its 95 % interval -> accuracies."""
    accuracies = np.divide(n_right, n_texts)
    intervals = [wilson(right, texts) for right, texts in zip(n_right, n_texts)]
    low, high = np.transpose(intervals)
    # matplotlib refuses an error bar that rounding has made negative
    below = np.maximum(accuracies - low, 0)
    above = np.maximum(high - accuracies, 0)
    positions = range(len(names))
    bar_style = {'fmt': 'o', 'color': BLUE, 'lw': 1}
    axes.errorbar(positions, accuracies, (below, above), **bar_style, label='with 95 % interval')
    axes.set(xticks=positions, xticklabels=names, ylabel='accuracy')
    axes.set_xlim(-0.6, len(names) - 0.4)
    return accuracies


# -----------------------------------------------------------------------------
# figures as files


def import_style():
    """matplotlib.style. ValueError if matplotlib is not installed."""
    try:
        from matplotlib import style
    except ImportError:
        mistake = 'the pictures need matplotlib, which is not installed'
        raise ValueError(f'{mistake}; pip install matplotlib') from None
    return style


def find_fonts(texts):
    """
    The names of fonts that together have all letters of the texts, matplotlib's own first. If no
    font of this machine has one of them, a line on stderr says so.
    """
    from matplotlib.font_manager import findSystemFonts, fontManager, get_font

    own_font = 'DejaVu Sans'
    families = [own_font]
    own_letters = get_font(fontManager.findfont(own_font)).get_charmap()
    missing = {ord(letter) for letter in ''.join(texts) if letter.isprintable()} - set(own_letters)
    if not missing:
        return families

    # matplotlib's own list of fonts may be older than the fonts; without serifs they go together
    paths = sorted(findSystemFonts(), key=lambda path: ('Sans' not in path, path))
    for path in paths:
        try:
            font = get_font(path)
        except (OSError, RuntimeError):  # a broken font
            continue
        letters = missing.intersection(font.get_charmap())
        if letters and 'Regular' in font.style_name:
            fontManager.addfont(path)
            families.append(font.family_name)
            missing -= letters
        if not missing:
            return families
    letters = ''.join(map(chr, sorted(missing)[:5]))
    what = f'no font of this machine has letters of the labels, such as {letters}'
    print(f'{what}; the pictures show boxes for them, report.html shows them', file=sys.stderr)
    return families


def save_figure(figure, path):
    """Writes a figure as PNG. ValueError if it cannot be written."""
    with open_whole(path, 'wb') as f:
        figure.savefig(f, format='png')


def save_comparison(path, logs):
    """Draws the comparison of several runs, see draw_comparison, and saves it."""
    with import_style().context(['default', STYLE]):
        save_figure(draw_comparison(logs), path)


def draw_figures(folder, runs, parent, evaluation, log):
    """
    Draws four figures of the run in `folder` and one of all `runs`, which goes into `parent`.

    evaluation is what evaluation.json holds, or {}; log is what metrics.jsonl holds. The folders
    are Paths. Returns the paths of the figures. ValueError if matplotlib is not installed or
    predictions.csv cannot be read.
    """
    style = import_style()

    # what the run predicted
    rows, labels, logits = read_predictions(folder)
    targets = np.array([row['truth'] for row in rows])
    predictions = np.array([row['guess'] for row in rows])
    lengths = np.array([int(row['tokens']) for row in rows])
    is_right = targets == predictions
    table = confusion(targets, predictions, len(labels))

    # how many texts each run has right
    n_right = []
    n_texts = []
    for run in runs:
        run_rows = read_predictions(run)[0]
        n_right.append(sum(row['truth'] == row['guess'] for row in run_rows))
        n_texts.append(len(run_rows))
    names = [run.resolve().name for run in runs]

    best = evaluation.get('best')
    temperature = evaluation.get('temperature', 1)
    baselines = evaluation.get('baseline', {})
    # 'default': the user's own matplotlibrc must not change the figures
    fonts = {'font.family': find_fonts([*labels, *names])}
    with style.context(['default', STYLE, fonts]):
        figures = {
            folder / 'curves.png': draw_curves(log, best),
            folder / 'confusion.png': draw_confusion(table, labels),
            folder / 'reliability.png': draw_reliability(
                logits, predictions, is_right, temperature
            ),
            folder / 'length.png': draw_lengths(lengths, is_right),
            parent / 'seeds.png': draw_seeds(n_right, n_texts, names, baselines),
        }
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Glyph')  # find_fonts has said it in one line
            for path, figure in figures.items():
                save_figure(figure, path)
    return list(figures)
