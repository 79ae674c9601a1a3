# python -m pytest tests/test_suspects.py
# suspects.py: labels that are probably wrong, from the folds of a cross-validation

import csv

import numpy as np
import pytest
from evaluated_run import LABELS, write_run

from nanosentiment.predictions import read_predictions, unquote_formula
from nanosentiment.suspects import find_suspects, read_folds, write_suspects


def test_a_row_is_suspicious_where_the_model_is_sure_of_another_label():
    """The example of the docstring: the mean probability of label 1 is 0.85."""
    of_label_1 = np.array([0.1, 0.9, 0.8, 0.9])
    probabilities = np.stack([1 - of_label_1, of_label_1], axis=1)
    suspects, suggested = find_suspects(probabilities, np.array([0, 0, 1, 1]))
    assert suspects.tolist() == [1]
    assert suggested.tolist() == [1]


def test_the_most_suspicious_row_comes_first():
    of_label_1 = np.array([0.1, 0.8, 0.9, 0.7, 0.75])
    probabilities = np.stack([1 - of_label_1, of_label_1], axis=1)
    suspects, _ = find_suspects(probabilities, np.array([0, 0, 0, 1, 1]))
    assert suspects.tolist() == [2, 1]


def test_a_rare_label_has_a_threshold_of_its_own():
    """A model is never sure of a rare label, so one threshold for all would never suggest it."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.95, 0.05], [0.48, 0.52], [0.6, 0.4]])
    given = np.array([0, 0, 0, 0, 1])
    suspects, suggested = find_suspects(probabilities, given)
    assert (suspects.tolist(), suggested.tolist()) == ([3], [1])


def test_who_predicts_the_given_label_is_no_witness_against_it():
    probabilities = np.array([[0.55, 0.45], [0.9, 0.1], [0.3, 0.7], [0.9, 0.1]])
    given = np.array([0, 0, 1, 1])  # label 1 has a mean of 0.4, which row 0 exceeds
    suspects, _ = find_suspects(probabilities, given)
    assert 0 not in suspects


def test_a_label_without_rows_is_not_suggested():
    suspects, _ = find_suspects(np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([0, 0]))
    assert suspects.tolist() == []


def test_flipped_labels_are_found_as_by_cleanlab():
    """The package of the paper's authors."""
    cleanlab = pytest.importorskip('cleanlab.filter', reason='pip install cleanlab')
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 2000)
    given = truth.copy()
    flipped = rng.choice(2000, 100, replace=False)
    given[flipped] = (given[flipped] + 1) % 4
    logits = rng.normal(size=(2000, 4))
    logits[np.arange(2000), truth] += 4
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    suspects, _ = find_suspects(probabilities, given)
    issues = cleanlab.find_label_issues(
        given,
        probabilities,
        filter_by='confident_learning',
        return_indices_ranked_by='self_confidence',
    )
    assert set(suspects) == set(issues)
    assert len(set(suspects) & set(flipped)) > 0.9 * len(suspects)


# -----------------------------------------------------------------------------
# of a run


@pytest.fixture
def folds(tmp_path):
    """Two folds of 30 texts, every fifth of which is predicted otherwise than it is called."""
    for k in (1, 2):
        write_run(tmp_path / f'fold-{k}', n=30, seed=k)
    return tmp_path


def test_the_rows_of_all_folds_are_read_with_calibrated_probabilities(folds):
    rows, labels, probabilities, given = read_folds(str(folds))
    assert len(rows) == 60
    assert labels == LABELS
    assert probabilities.shape == (60, 3)
    predictions = read_predictions(folds / 'fold-1')[0]
    confidence = [float(row['confidence']) for row in predictions]
    assert probabilities[:30].max(axis=1) == pytest.approx(confidence, abs=1e-4)
    assert [labels[i] for i in given[30:]] == [row['label'] for row in rows[30:]]
    assert [row['fold'] for row in rows] == ['1'] * 30 + ['2'] * 30


def test_a_label_that_is_in_one_fold_alone_is_left_out(folds):
    """The model of that fold was trained without it, and would call each such row wrong."""
    path = folds / 'fold-1/predictions.csv'
    lines = path.read_text().split('\n')
    assert sum(',neutral,' in line for line in lines) > 5
    path.write_text('\n'.join(line.replace(',neutral,', ',positive,') for line in lines))
    rows, labels, _, given = read_folds(str(folds))
    assert len(rows) < 60
    assert labels.index('neutral') not in given


def test_suspects_csv_holds_what_is_found(folds):
    summary = write_suspects(str(folds))
    with open(folds / 'suspects.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == summary['suspects'] > 0
    assert sum(n for _, _, n in summary['pairs']) == len(rows)
    all_rows = {(row['fold'], row['row']): row for row in read_folds(str(folds))[0]}
    for row in rows:
        assert row['label'] != row['suggested']
        assert float(row['p_label']) < float(row['p_suggested'])
        original = all_rows[row['fold'], row['row']]
        assert unquote_formula(row['text']) == original['text']
        assert row['label'] == original['label']


def test_a_run_without_folds_is_refused_with_the_remedy(tmp_path):
    write_run(tmp_path)
    with pytest.raises(ValueError, match='holds no folds.*--folds=5'):
        write_suspects(str(tmp_path))


def test_a_fold_that_is_not_evaluated_is_named(folds):
    (folds / 'fold-2/evaluation.json').unlink()
    with pytest.raises(ValueError, match='python evaluate.py --out_dir=.*fold-2'):
        write_suspects(str(folds))


def test_the_command_prints_them(folds, run_here):
    result = run_here('evaluate.py', f'--out_dir={folds}', '--suspects=True')
    assert 'of 60 labels are suspicious' in result.out
    assert result.last['files']['suspects'] == f'{folds}/suspects.csv'
    assert 'first' not in result.last, 'whole texts would make the line very long'
