"""The pictures show what the files say. python -m pytest tests/test_plots.py"""

import re
from pathlib import Path

import numpy as np
import pytest
from evaluated_run import LABELS, write_run

from nanosentiment.files import read_json_lines
from nanosentiment.metrics import ece, softmax
from nanosentiment.plots import (
    draw_comparison,
    draw_confusion,
    draw_curves,
    draw_figures,
    draw_lengths,
    draw_reliability,
    draw_seeds,
    find_fonts,
)
from nanosentiment.predictions import read_predictions

pytest.importorskip('matplotlib')


def lines_by_label(axes):
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_all_pictures_of_a_run_are_written(tmp_path):
    """Labels may hold what matplotlib takes for a formula."""
    write_run(tmp_path, labels=['a$b$', 'with a long name'])
    paths = draw_figures(tmp_path, [tmp_path], tmp_path, {}, [])
    names = [path.name for path in paths]
    assert names == ['curves.png', 'confusion.png', 'reliability.png', 'length.png', 'seeds.png']
    for path in paths:
        width, height = png_size(path)
        assert 800 < width < 3000
        assert 600 < height < 3000


def png_size(path):
    """The head of a .png file holds its width and height in pixels."""
    head = Path(path).read_bytes()[:24]
    assert head[:8] == b'\x89PNG\r\n\x1a\n'
    return int.from_bytes(head[16:20], 'big'), int.from_bytes(head[20:24], 'big')


def test_the_curves_are_those_of_the_log(tmp_path):
    evaluation = write_run(tmp_path)
    log = read_json_lines(tmp_path / 'metrics.jsonl')
    loss_axes, score_axes = draw_curves(log, evaluation['best']).axes
    losses = lines_by_label(loss_axes)
    steps = losses['loss of a step'].tolist()
    assert steps == [[0.5, 1], [1, 1 / 2], [1.5, 1 / 3], [2, 1 / 4]]
    assert losses['val loss'].tolist() == [[0.5, 2.5], [1, 1.5], [1.5, 0.5], [2, 1.5]]
    assert losses['best checkpoint: epoch 1.5'][:, 0].tolist() == [1.5, 1.5]
    assert lines_by_label(score_axes)['val macro f1'][:, 1].tolist() == [0.4] * 4


def test_a_comparison_has_a_curve_of_each_run(tmp_path):
    """Of the evaluations alone, for a run may log a thousand steps between two of them."""
    write_run(tmp_path)
    log = read_json_lines(tmp_path / 'metrics.jsonl')
    loss_axes, score_axes = draw_comparison({'one': log, 'two': log[:2]}).axes
    evaluations = [line for line in log if 'val_loss' in line]
    assert [line.get_label() for line in loss_axes.lines] == ['one', 'two']
    for axes, name in ((loss_axes, 'val_loss'), (score_axes, 'val_accuracy')):
        points = [[line['epoch'], line[name]] for line in evaluations]
        assert axes.lines[0].get_xydata().tolist() == points
        assert len(axes.lines[1].get_xydata()) < len(points)


def test_without_evaluation_json_no_best_checkpoint_is_drawn(tmp_path):
    """The log does not say by which metric it was chosen, so the lowest loss may be another one."""
    write_run(tmp_path)
    log = read_json_lines(tmp_path / 'metrics.jsonl')
    loss_axes, _ = draw_curves(log, None).axes
    assert 'best checkpoint' not in ' '.join(lines_by_label(loss_axes))


def test_the_rows_of_the_confusion_matrix_are_the_truth():
    """A transposed matrix looks as good as the right one."""
    table = np.array([[6, 2, 0], [1, 9, 0], [0, 0, 0]])
    axes = draw_confusion(table, LABELS).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[1, 0] == '2\n25%'  # x is the column, y the row
    assert cells[0, 1] == '1\n10%'
    assert cells[2, 2] == '0\n0%'
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == LABELS


def test_the_reliability_diagram_is_that_of_the_predictions(tmp_path):
    """Mean confidence and share right over all bins are those of all texts."""
    write_run(tmp_path)
    rows, _, logits = read_predictions(tmp_path)
    targets = np.array([row['truth'] for row in rows])
    predictions = np.array([row['guess'] for row in rows])
    is_right = targets == predictions

    figure = draw_reliability(logits, predictions, is_right, temperature=2.0)

    lines = lines_by_label(figure.axes[0])
    for name, temperature in (('calibrated', 2.0), ('as trained', 1.0)):
        probabilities = softmax(logits / temperature)
        points = lines[f'{name}, ECE {ece(probabilities, targets):.3f}']
        expected = [probabilities.max(axis=1).mean(), is_right.mean()]
        np.testing.assert_allclose(points.mean(axis=0), expected)


def test_a_temperature_of_one_is_drawn_once():
    logits = np.random.default_rng(0).normal(size=(40, 2))
    figure = draw_reliability(logits, logits.argmax(axis=1), np.ones(40), temperature=1)
    labels = ' '.join(lines_by_label(figure.axes[0]))
    assert 'as trained' in labels
    assert 'calibrated,' not in labels


def test_each_point_of_the_length_picture_is_the_accuracy_of_its_texts():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 90, 200)
    is_right = rng.random(200) < 0.7
    axes = draw_lengths(lengths, is_right).axes[0]
    points = axes.containers[0][0].get_xydata()
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert len(names) == 8
    for name, (_, accuracy) in zip(names, points, strict=True):
        numbers = re.fullmatch(r'(\d+)-(\d+)\nn (\d+)', name).groups()
        shortest, longest, n_texts = (int(number) for number in numbers)
        in_bin = (shortest <= lengths) & (lengths <= longest)
        assert in_bin.sum() == n_texts
        assert is_right[in_bin].mean() == accuracy


@pytest.mark.parametrize('n, n_bins', [(1, 1), (39, 1), (40, 2), (159, 7), (1000, 8)])
def test_a_bin_of_lengths_has_at_least_twenty_texts(n, n_bins):
    axes = draw_lengths(np.arange(1, n + 1), np.ones(n, dtype=bool)).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    sizes = [int(name.rpartition(' ')[2]) for name in names]
    assert len(sizes) == n_bins
    assert sum(sizes) == n
    assert min(sizes) >= min(n, 20)


def test_the_seeds_stand_beside_their_mean_and_the_baselines():
    """A baseline that was not scored is left out; 24 of 24 must not break the error bar."""
    baselines = {'majority': {'accuracy': 0.5}, 'bag_of_words': None}
    axes = draw_seeds([18, 24], [24, 24], ['seed-1', 'seed-2'], baselines).axes[0]
    assert axes.containers[0][0].get_xydata().tolist() == [[0, 0.75], [1, 1]]
    labels = list(lines_by_label(axes))
    assert 'mean 0.875, sd 0.177' in labels
    assert 'majority, 0.500' in labels
    assert 'bag of words' not in ' '.join(labels)


# -----------------------------------------------------------------------------
# labels of any length, number and language

LONG = [f'the delivery came far too late for me {i}' for i in range(3)]
ARABIC = ['تأخر التسليم كثيرا', 'محايد', 'التسليم جيد']


@pytest.mark.parametrize(
    'labels', [LONG, ARABIC, [f'label number {i}' for i in range(77)], ['negative']]
)
def test_no_label_is_cut_off(labels):
    n_class = len(labels)
    figure = draw_confusion(np.eye(n_class, dtype=int), labels)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    width, height = figure.canvas.get_width_height()
    for text in [
        *axes.get_xticklabels(),
        *axes.get_yticklabels(),
        axes.xaxis.label,
        axes.yaxis.label,
    ]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= width and box.y1 <= height, text


def test_long_labels_leave_room_for_the_cells():
    figures = [draw_confusion(np.eye(3, dtype=int), labels) for labels in (LONG, ['a', 'b', 'c'])]
    widths = []
    for figure in figures:
        figure.draw_without_rendering()
        widths.append(figure.axes[0].get_window_extent().width)
    assert widths[0] > 0.9 * widths[1]


def test_letters_that_no_font_has_are_said_in_one_line(tmp_path, monkeypatch, capsys):
    """matplotlib warned once for each letter and picture."""
    monkeypatch.setattr('matplotlib.font_manager.findSystemFonts', lambda: [])
    assert find_fonts(['消极的', 'bad']) == ['DejaVu Sans']
    err = capsys.readouterr().err
    assert err.count('\n') == 1
    assert '极' in err


def test_a_font_of_the_machine_is_taken_for_letters_that_matplotlib_lacks(monkeypatch):
    """Here its own second font, which has letters that the first one lacks."""
    from matplotlib import font_manager

    path = font_manager.findfont('STIXGeneral')
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: [path])
    own_letters = font_manager.get_font(font_manager.findfont('DejaVu Sans')).get_charmap()
    letters = font_manager.get_font(path).get_charmap()
    letter = next(chr(i) for i in letters if i not in own_letters and chr(i).isprintable())
    assert find_fonts([letter]) == ['DejaVu Sans', 'STIXGeneral']


def test_a_broken_font_is_passed_over(tmp_path, monkeypatch, capsys):
    (tmp_path / 'broken.ttf').write_bytes(b'no font')
    paths = [str(tmp_path / 'broken.ttf'), str(tmp_path / 'a link that leads nowhere.ttf')]
    monkeypatch.setattr('matplotlib.font_manager.findSystemFonts', lambda: paths)
    assert find_fonts(['消极的']) == ['DejaVu Sans']
