# python -m pytest tests/test_evaluation.py
"""An evaluation: every text with its own prediction, the same scores by any way, safe tables."""

import csv
import gzip
import json
import os
import shutil
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, read_checkpoint, run, write_rows

import prepare
from nanosentiment import Classifier, metrics
from nanosentiment.evaluation import (
    compare_runs,
    coverage,
    errors_by_tag,
    evaluate,
    file_examples,
    format_scores,
    print_comparison,
    print_evaluation,
    split_examples,
    wandb_plots,
)
from nanosentiment.files import checksum, hide_home, read_json_lines, read_sealed_json
from nanosentiment.memmaps import read_meta
from nanosentiment.metrics import ece, fit_temperature, softmax
from nanosentiment.predictions import (
    output_paths,
    quote_formula,
    read_predictions,
    unquote_formula,
)
from nanosentiment.tables import Table


def read_csv(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def column(rows, name):
    return [float(row[name]) for row in rows]


@pytest.fixture(scope='module')
def evaluated(trained, tmp_path_factory):
    """The shared run in a folder of its own, evaluated on the test and the validation split."""
    out_dir = tmp_path_factory.mktemp('evaluated') / 'run'
    shutil.copytree(trained.out_dir, out_dir)
    classifier = Classifier(str(out_dir / 'best.pt'), 'cpu', 'float32')
    settings = classifier.checkpoint['settings']
    folder = prepare.prepare(settings)
    result = SimpleNamespace(out_dir=out_dir, classifier=classifier, folder=folder)
    result.train_file = settings['dataset']
    result.test_file = settings['test_file']
    result.training = trained.result.last
    result.val_examples = split_examples(classifier, folder, 'val')
    result.test_examples = split_examples(classifier, folder, 'test')
    result.val = evaluate(classifier, result.val_examples, str(out_dir), 'val')
    result.test = evaluate(classifier, result.test_examples, str(out_dir), 'test')
    return result


@pytest.fixture
def copy(evaluated, tmp_path):
    """A copy of the evaluated run, to be damaged."""
    return shutil.copytree(evaluated.out_dir, tmp_path / 'run')


# -----------------------------------------------------------------------------
# scores


def test_the_scores_are_those_of_training(evaluated):
    best = evaluated.training['best']
    assert evaluated.test['accuracy'] == evaluated.training['test']['accuracy']
    assert evaluated.val['macro_f1'] == pytest.approx(best['val_macro_f1'])
    assert evaluated.val['nll'] == pytest.approx(best['val_loss'], rel=1e-5)


def test_every_row_is_there_once_with_its_own_text(evaluated):
    """A shift by one between texts and predictions would not show in any score."""
    raw = read_csv(evaluated.test_file)
    rows = read_csv(evaluated.out_dir / 'predictions.csv')
    assert [int(row['row']) for row in rows] == list(range(len(raw)))
    for row, raw_row in zip(rows, raw):
        assert (row['text'], row['label']) == (raw_row['body'], raw_row['mood'])

    raw = read_csv(evaluated.train_file)
    val_rows = read_csv(evaluated.out_dir / 'predictions-val.csv')
    assert len({row['row'] for row in val_rows}) == evaluated.val['n']
    for row in val_rows:
        raw_row = raw[int(row['row'])]
        assert (row['text'], row['label']) == (raw_row['body'], raw_row['mood'])


def test_the_errors_are_the_wrong_rows_most_confident_first(evaluated):
    rows = read_csv(evaluated.out_dir / 'predictions.csv')
    errors = read_csv(evaluated.out_dir / 'errors.csv')
    wrong = [row for row in rows if row['label'] != row['prediction']]
    assert errors == sorted(wrong, key=lambda row: -float(row['confidence']))
    assert len(errors) == round((1 - evaluated.test['accuracy']) * len(rows))


def test_the_most_confident_errors_are_explained(evaluated, copy):
    """report.py needs no torch, so what needs the model is written down."""
    other_labels = (evaluated.test_examples.targets + 1) % 3  # so that there are errors
    examples = replace(evaluated.test_examples, targets=other_labels)
    evaluation = evaluate(evaluated.classifier, examples, str(copy), n_explained=2)
    errors = read_csv(copy / 'errors.csv')
    explanations = read_json_lines(copy / 'explanations.jsonl')
    assert [line['row'] for line in explanations] == [int(row['row']) for row in errors[:2]]
    for line, row in zip(explanations, errors):
        assert ''.join(line['pieces']) == unquote_formula(row['text'])
        assert line['label'] == row['prediction']
        assert len(line['weights']) == len(line['pieces'])
    assert evaluation['files']['explanations'] == str(copy / 'explanations.jsonl')
    assert evaluation['checksums']['explanations'] == checksum(copy / 'explanations.jsonl')


def test_explanations_of_another_evaluation_do_not_stay(evaluated, copy):
    (copy / 'explanations.jsonl').write_text('old')
    evaluation = evaluate(evaluated.classifier, evaluated.test_examples, str(copy))
    assert not (copy / 'explanations.jsonl').exists()
    assert 'explanations' not in evaluation['files']


def test_the_tables_say_what_the_model_says(evaluated):
    """Confidence and loss are calibrated, with a temperature of the validation split."""
    classifier = evaluated.classifier
    targets = evaluated.val_examples.targets
    logits = classifier.predict(evaluated.val_examples.ids)
    probabilities = softmax(logits / classifier.temperature)
    ascending = np.sort(probabilities, axis=1)
    loss = -np.log(probabilities[np.arange(len(targets)), targets])

    rows, names, written = read_predictions(evaluated.out_dir, split='val')
    assert names == classifier.labels
    assert [row['truth'] for row in rows] == targets.tolist()
    assert [row['guess'] for row in rows] == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(written, logits, atol=1e-5)
    np.testing.assert_allclose(column(rows, 'confidence'), ascending[:, -1], atol=1e-5)
    margin = ascending[:, -1] - ascending[:, -2]
    np.testing.assert_allclose(column(rows, 'margin'), margin, atol=1e-5)
    np.testing.assert_allclose(column(rows, 'loss'), loss, atol=1e-5)

    assert classifier.temperature != 1
    assert classifier.temperature == pytest.approx(fit_temperature(logits, targets), rel=1e-3)
    saved = read_sealed_json(evaluated.out_dir / 'evaluation-val.json', '')
    assert saved == hide_home(evaluated.val)
    assert saved['temperature'] == classifier.temperature
    assert saved['ece_calibrated'] == pytest.approx(ece(probabilities, targets), abs=1e-6)


def test_a_classifier_gives_the_probabilities_of_the_evaluation(evaluated):
    """Below the threshold its answer is "uncertain"."""
    row = read_csv(evaluated.out_dir / 'predictions.csv')[0]
    confidence = float(row['confidence'])
    answer = evaluated.classifier.classify([row['text']])[0]
    assert answer['label'] == row['prediction']
    assert answer['probability'] == pytest.approx(confidence, abs=1e-4)
    answer = evaluated.classifier.classify([row['text']], threshold=confidence + 0.001)[0]
    assert answer['label'] == 'uncertain'


def test_coverage_counts_texts_and_their_accuracy():
    confidence = np.array([0.55, 0.65, 0.85, 0.9])
    is_wrong = np.array([True, False, False, True])
    assert coverage(confidence, is_wrong) == [
        [0.5, 1.0, 0.5],
        [0.6, 0.75, 2 / 3],
        [0.7, 0.5, 0.5],
        [0.8, 0.5, 0.5],
        [0.9, 0.25, 0.0],
        [0.95, 0.0, None],
    ]


def test_errors_are_counted_by_tag():
    tags = [['negation'], ['negation', 'long'], [], ['long'], ['long']]
    is_wrong = np.array([True, False, True, False, True])
    by_tag = errors_by_tag(tags, is_wrong)
    assert by_tag['negation'] == {'n': 2, 'errors': 1, 'rate': 0.5, 'ci': [0.0945, 0.9055]}
    assert (by_tag['long']['n'], by_tag['long']['errors']) == (3, 1)
    assert by_tag['rare'] == {'n': 0, 'errors': 0, 'rate': None, 'ci': [0.0, 1.0]}


def test_a_word_is_rare_if_training_never_showed_it(evaluated, tmp_path):
    """What cleaning removes is not rare: the tags are those of the text that the model reads."""
    path = tmp_path / 'rows.csv'
    path.write_text('body,mood\n<b>LOVELY</b> (thanks),good\nzyzzyva thanks,good\n')
    examples = file_examples(evaluated.classifier, Table(str(path)))
    examples.baseline = evaluated.test_examples.baseline
    evaluate(evaluated.classifier, examples, str(tmp_path))
    rows = read_csv(tmp_path / 'predictions.csv')
    assert ['rare' in row['tags'].split() for row in rows] == [False, True]


def test_long_texts_are_tagged_with_their_full_length(evaluated, tmp_path):
    path = tmp_path / 'rows.csv'
    path.write_text(f'body,mood\n{"a great thing " * 50},good\ngreat,good\n')
    examples = file_examples(evaluated.classifier, Table(str(path)))
    evaluate(evaluated.classifier, examples, str(tmp_path))
    long, short = read_csv(tmp_path / 'predictions.csv')
    assert int(long['tokens']) > evaluated.classifier.block_size == len(examples.ids[0])
    assert (long['truncated'], short['truncated']) == ('True', 'False')
    assert 'long' in long['tags'] and 'long' not in short['tags']


def test_a_registered_metric_appears_everywhere(evaluated, tmp_path, monkeypatch, capsys):
    """To add a metric is one function and one entry in metrics.METRICS."""

    def worst_recall(table):
        return metrics.precision_recall_f1(table)[1].min(axis=-1)

    monkeypatch.setitem(metrics.METRICS, 'worst_recall', worst_recall)
    evaluation = evaluate(evaluated.classifier, evaluated.test_examples, str(tmp_path))
    print_evaluation(evaluation)
    print_comparison(compare_runs(str(tmp_path), str(tmp_path)))
    scores = evaluation['per_class'].values()
    assert evaluation['worst_recall'] == min(score['recall'] for score in scores)
    saved = json.loads((tmp_path / 'evaluation.json').read_text())
    assert saved['worst_recall'] == evaluation['worst_recall']
    lines = capsys.readouterr().out.split('\n')
    assert f'worst_recall {evaluation["worst_recall"]:.3f}' in lines[2]
    starts = [line.partition(' ')[0] for line in lines if 'worst_recall' in line]
    assert starts == ['accuracy', 'majority', 'bag', 'worst_recall']


def test_the_printed_table_holds_all_labels_and_counts():
    labels = ['good', 'a label with a long name', 'bad']
    logits = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    scores = metrics.score(logits, [0, 0, 0, 2, 2, 1], labels)
    head, columns, *rows = format_scores(scores, labels).split('\n')
    assert head.startswith('accuracy 0.667 [0.300, 0.903]   macro-F1 0.533   NLL ')
    assert columns.split()[-5:] == ['good', 'a', 'label', 'with', 'bad']
    assert rows[0].split() == ['good', '1.000', '0.667', '0.800', '3', '2', '1', '0']
    assert rows[1].startswith('a label with a long name')
    assert len({len(row) for row in rows}) == 1


# -----------------------------------------------------------------------------
# labelled files


def test_a_labelled_file_is_evaluated_like_a_split(evaluated, tmp_path):
    examples = file_examples(evaluated.classifier, Table(evaluated.test_file))
    again = evaluate(evaluated.classifier, examples, str(tmp_path), input=evaluated.test_file)
    assert again['confusion'] == evaluated.test['confusion']
    assert again['nll'] == pytest.approx(evaluated.test['nll'], rel=1e-5)
    assert (again['split'], again['input']) == ('', evaluated.test_file)
    rows = read_csv(tmp_path / 'predictions-input.csv')
    expected = read_csv(evaluated.out_dir / 'predictions.csv')
    assert [row['text'] for row in rows] == [row['text'] for row in expected]


def test_rows_without_text_or_label_are_left_out(evaluated, tmp_path, capsys):
    """Their number is the record's, so that one finds them in the file."""
    path = tmp_path / 'rows.csv'
    path.write_text('said,is\n,good\nlovely,good\nlate,\nawful,bad\nbroken\n')
    examples = file_examples(evaluated.classifier, Table(str(path)), 'said', 'is')
    assert examples.record_numbers.tolist() == [1, 3]
    assert examples.texts == ['lovely', 'awful']
    labels = evaluated.classifier.labels
    assert examples.targets.tolist() == [labels.index('good'), labels.index('bad')]
    err = capsys.readouterr().err
    line = f'{path}: 3 of 5 rows cannot be used: no label (2 rows, the first in line 4)'
    end = ' and other reasons, and they are left out; is --label_column=is '
    assert err.startswith(line + end)
    assert err.count('\n') == 1


def test_json_lines_may_lack_a_column(evaluated, tmp_path):
    path = tmp_path / 'rows.jsonl'
    path.write_text('{"body": "lovely", "mood": "good"}\n{"body": "late"}\n{"mood": "bad"}\n')
    examples = file_examples(evaluated.classifier, Table(str(path)))
    assert examples.record_numbers.tolist() == [0]


ROWS = [{'body': 'lovely, thanks', 'mood': 'good'}, {'body': 'late', 'mood': 'bad'}]
TABLES = {
    'rows.json': json.dumps(ROWS).encode(),
    'rows.ndjson': b'\n'.join(json.dumps(row).encode() for row in ROWS),
    'rows.csv': b'body;mood\nlovely, thanks;good\nlate;bad\n',
    'mac.csv': b'body,mood\r"lovely, thanks",good\rlate,bad\r',
    'excel.tsv': 'body\tmood\nlovely, thanks\tgood\nlate\tbad\n'.encode('utf-16'),
    'rows.csv.gz': gzip.compress(b'body,mood\n"lovely, thanks",good\nlate,bad\n'),
}


@pytest.mark.parametrize('name', TABLES)
def test_a_labelled_file_may_be_any_table(evaluated, tmp_path, name):
    """The training data was a CSV in UTF-8; what is judged later need not be one."""
    path = tmp_path / name
    path.write_bytes(TABLES[name])
    examples = file_examples(evaluated.classifier, Table(str(path)))
    assert examples.texts == ['lovely, thanks', 'late']
    assert [examples.labels[target] for target in examples.targets] == ['good', 'bad']


def test_a_plain_text_file_has_no_labels(evaluated, tmp_path):
    path = tmp_path / 'rows.txt'
    path.write_text('lovely\nlate\n')
    with pytest.raises(ValueError, match='rows.txt is read as plain text, which has no labels; '):
        file_examples(evaluated.classifier, Table(str(path)))


def test_what_a_table_was_taken_for_is_said(evaluated, tmp_path, capsys):
    """An encoding that is guessed wrongly changes texts without an error."""
    path = tmp_path / 'rows.csv'
    path.write_bytes('body,mood\ncafé,good\n'.encode('cp1252'))
    file_examples(evaluated.classifier, Table(str(path)))
    assert capsys.readouterr().err.startswith(f'{path}: read as cp1252')


def test_how_a_table_is_written_may_be_told(evaluated, tmp_path):
    """Nothing guesses this delimiter and encoding, and columns without names have numbers."""
    path = tmp_path / 'rows.csv'
    path.write_bytes('good#привет\nbad#late\n'.encode('cp1251'))
    table = Table(str(path), '#', 'cp1251', 'False')
    examples = file_examples(evaluated.classifier, table, '1', '0')
    assert examples.texts == ['привет', 'late']


def test_several_text_columns_are_joined(evaluated, tmp_path):
    path = tmp_path / 'rows.csv'
    path.write_text('title,body,mood\nThanks!,lovely,good\n,late,bad\n')
    examples = file_examples(evaluated.classifier, Table(str(path)), 'title,body')
    assert examples.texts == ['Thanks!\nlovely', 'late']


# -----------------------------------------------------------------------------
# labels that the run does not know


@pytest.fixture
def with_unknown(evaluated, tmp_path):
    """The shared run in a folder of its own, evaluated on a file in which 3 of 5 labels are new."""
    path = tmp_path / 'rows.csv'
    path.write_text('body,mood\nlovely,good\nlate,meh\nawful,bad\nlovely,meh\nbroken,"a,b"\n')
    examples = file_examples(evaluated.classifier, Table(str(path)))
    out_dir = shutil.copytree(evaluated.out_dir, tmp_path / 'run')
    # as if it were the test split, whose evaluation report.py reads
    examples.split_sizes = evaluated.test_examples.split_sizes
    evaluation = evaluate(evaluated.classifier, examples, str(out_dir))
    return SimpleNamespace(path=path, out_dir=out_dir, examples=examples, evaluation=evaluation)


def test_unknown_labels_of_a_file_count_as_wrong(with_unknown, capsys):
    """Leaving these rows out would make the score better than the model."""
    evaluation = with_unknown.evaluation
    assert evaluation['n'] == 5
    assert evaluation['accuracy'] <= 2 / 5
    assert evaluation['labels'] == ['bad', 'good', 'odd', 'a,b', 'meh']
    assert evaluation['unknown_labels'] == ['a,b', 'meh']
    assert evaluation['per_class']['meh'] == {'precision': 0, 'recall': 0, 'f1': 0, 'support': 2}
    assert np.shape(evaluation['confusion']) == (5, 5)
    assert sum(evaluation['confusion'][4]) == 2
    saved = read_sealed_json(with_unknown.out_dir / 'evaluation.json', '')
    assert saved == hide_home(evaluation)
    print_evaluation(evaluation)
    printed = capsys.readouterr().out
    assert any(line.split()[:5] == ['meh', *['0.000'] * 3, '2'] for line in printed.split('\n'))


def test_unknown_labels_are_said_loudly(evaluated, with_unknown, capsys):
    file_examples(evaluated.classifier, Table(str(with_unknown.path)))
    what = f'{with_unknown.path}: 3 of 5 texts have a label unknown to the run (a,b, meh)'
    assert capsys.readouterr().err == f'{what}; they count as wrong answers\n'


def test_unknown_labels_are_in_the_tables(evaluated, with_unknown):
    rows, labels, logits = read_predictions(with_unknown.out_dir)
    assert [row['label'] for row in rows] == ['good', 'meh', 'bad', 'meh', 'a,b']
    assert labels == ['bad', 'good', 'odd', 'a,b', 'meh']
    assert [row['truth'] for row in rows] == with_unknown.examples.targets.tolist()
    assert logits.shape == (5, 3)
    assert [float(row['loss']) for row in rows[3:]] == [np.inf, np.inf]
    errors, _, _ = read_predictions(with_unknown.out_dir, 'errors')
    assert {'meh', 'a,b'} <= {row['label'] for row in errors}


def test_pictures_and_card_show_unknown_labels(with_unknown):
    pytest.importorskip('matplotlib')
    run('report.py', f'--out_dir={with_unknown.out_dir}')
    card = (with_unknown.out_dir / 'card.md').read_text()
    assert '| meh | 0.000 | 0.000 to 1.000 | 0.000 | 0.000 to 0.658 | 0.000 | 2 |' in card


def test_unknown_labels_can_be_compared(with_unknown):
    out_dir = str(with_unknown.out_dir)
    assert compare_runs(out_dir, out_dir)['accuracy'] == {'difference': 0, 'ci': [0, 0]}


def test_a_column_of_other_things_is_no_label_column(evaluated, tmp_path):
    """One row has a label by accident; a table of 1,001 x 1,001 helps nobody."""
    path = tmp_path / 'rows.csv'
    lines = [f'text {i},{i}\n' for i in range(1001)]
    path.write_text('body,mood\nlovely,good\n' + ''.join(lines))
    with pytest.raises(ValueError, match='0, 1, 2, 3, 4 and 996 more is unknown'):
        file_examples(evaluated.classifier, Table(str(path)))


def prepared_with(evaluated, folder, test_rows):
    """The run's training data prepared with another test file -> settings, folder, classifier."""
    test_file = folder / 'test.csv'
    test_file.write_text('body,mood\n' + ''.join(f'{text},{label}\n' for text, label in test_rows))
    classifier = Classifier(str(evaluated.out_dir), 'cpu', 'float32')
    settings = classifier.checkpoint['settings']
    settings |= {'test_file': str(test_file), 'data_dir': str(folder)}
    prepared = prepare.prepare(settings)
    # as if it had been trained on this data
    classifier.checkpoint['recipe'] = read_meta(prepared)['recipe']
    return settings, prepared, classifier


def test_unknown_labels_of_the_test_file_count_as_wrong(evaluated, tmp_path, capsys):
    """So they do in train.py's test result."""
    rows = [('lovely', 'good'), ('late', 'meh'), ('awful', 'bad'), ('great', 'meh')]
    _, folder, classifier = prepared_with(evaluated, tmp_path, rows)
    capsys.readouterr()

    examples = split_examples(classifier, folder, 'test')
    evaluation = evaluate(classifier, examples, str(tmp_path))

    what = 'test split: 2 of 4 texts have a label unknown to the run (meh)'
    assert capsys.readouterr().err == f'{what}; they count as wrong answers\n'
    assert [examples.labels[target] for target in examples.targets] == [label for _, label in rows]
    assert examples.texts == [text for text, _ in rows]
    assert evaluation['n'] == 4
    assert evaluation['accuracy'] <= 2 / 4
    assert evaluation['per_class']['meh']['support'] == 2
    baseline = evaluation['baseline']['majority']
    assert baseline['n'] == 4
    assert baseline['accuracy'] <= 2 / 4
    assert split_examples(classifier, folder, 'val').labels == ['bad', 'good', 'odd']


def test_the_raw_file_of_a_split_is_read_as_in_training(evaluated, tmp_path):
    """Nothing in the file tells its delimiter, or that it has no header."""
    path = tmp_path / 'rows.csv'
    lines = [f'good#lovely thing {i}\nbad#awful thing {i}\n' for i in range(20)]
    path.write_text(''.join(lines))
    classifier = Classifier(str(evaluated.out_dir), 'cpu', 'float32')
    settings = classifier.checkpoint['settings']
    settings |= {'dataset': str(path), 'test_file': '', 'data_dir': str(tmp_path)}
    settings |= {'text_column': '1', 'label_column': '0', 'delimiter': '#', 'header': 'False'}
    folder = prepare.prepare(settings)
    classifier.checkpoint['recipe'] = read_meta(folder)['recipe']
    classifier.labels = ['bad', 'good']
    examples = split_examples(classifier, folder, 'val')
    assert len(examples.texts) > 1
    for number, text in zip(examples.record_numbers, examples.texts):
        assert lines[number // 2].split('\n')[number % 2].endswith('#' + text)


@pytest.mark.parametrize(
    'content, words',
    [
        ('text,mood\nlovely,good\n', "no column 'body'; set --text_column to one of text, mood"),
        ('body,is\nlovely,good\n', "no column 'mood'; set --label_column to one of body, is"),
        ('body,mood\nlovely,purple\n', 'label purple is unknown; the labels of this run are bad'),
        (
            'body,mood\n,good\nlovely,\n,bad\n',
            r'3 of 3 rows cannot be used: no text \(2 rows, the first in line 2\)',
        ),
        ('body,mood\n', 'has no rows; is it the right file'),
    ],
)
def test_a_file_that_does_not_fit_is_refused(evaluated, tmp_path, content, words):
    path = tmp_path / 'rows.csv'
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        file_examples(evaluated.classifier, Table(str(path)))


def test_other_data_than_the_training_data_is_refused(evaluated, tmp_path):
    """The scores of a split would be those of texts that the run was trained on."""
    with pytest.raises(ValueError, match='has no dev split'):
        split_examples(evaluated.classifier, evaluated.folder, 'dev')
    write_rows(tmp_path / 'rows.csv', 240, seed=5)
    settings = dict(evaluated.classifier.checkpoint['settings'])
    settings |= {'dataset': str(tmp_path / 'rows.csv'), 'data_dir': str(tmp_path)}
    other_folder = prepare.prepare(settings)
    with pytest.raises(ValueError, match='other data'):
        split_examples(evaluated.classifier, other_folder, 'test')


# -----------------------------------------------------------------------------
# windows


@pytest.fixture
def reads_windows(evaluated):
    return Classifier(str(evaluated.out_dir), 'cpu', 'float32', windows=True)


def test_with_windows_a_split_is_judged_by_whole_texts(evaluated, reads_windows, copy):
    """Its tables are beside the others, so that no mean over seeds mixes the two."""
    before = (copy / 'evaluation.json').read_bytes()
    reads_windows.block_size = 8  # so that most texts are longer
    examples = split_examples(reads_windows, evaluated.folder, 'test')

    evaluation = evaluate(reads_windows, examples, str(copy))

    assert evaluation['windows'] is True
    assert evaluated.test['windows'] is False
    assert evaluation['files']['predictions'] == str(copy / 'predictions-windows.csv')
    assert (copy / 'evaluation.json').read_bytes() == before
    rows, _, logits = read_predictions(copy, windows=True)
    assert {row['truncated'] for row in rows} == {'False'}
    assert max(int(row['tokens']) for row in rows) > 8
    answers = reads_windows([row['text'] for row in rows])
    for row, answer in zip(rows, answers):
        assert float(row['confidence']) == pytest.approx(answer['probability'], abs=1e-4)
    assert not np.allclose(logits, read_predictions(copy)[2], atol=0.01)


def test_with_windows_a_file_is_judged_by_whole_texts(reads_windows, tmp_path):
    path = tmp_path / 'rows.csv'
    path.write_text(f'body,mood\n{"lovely thanks " * 50},good\ngreat,good\n')
    examples = file_examples(reads_windows, Table(str(path)))
    assert examples.lengths[0] == len(examples.ids[0]) > 32
    evaluate(reads_windows, examples, str(tmp_path), input=str(path))
    row, _ = read_csv(tmp_path / 'predictions-input-windows.csv')
    assert row['truncated'] == 'False'
    assert 'long' not in row['tags'].split()


# -----------------------------------------------------------------------------
# the tables


def test_a_folder_that_cannot_be_written_is_reported_before_the_work(
    evaluated, tmp_path, monkeypatch
):
    """An administrator may write everywhere, so the refusal is made up."""

    def refuse(dir):
        raise PermissionError(13, 'Permission denied', dir)

    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    monkeypatch.setattr(evaluated.classifier, 'logits', None)
    with pytest.raises(ValueError) as error:
        evaluate(evaluated.classifier, evaluated.test_examples, f'{tmp_path}/last.pt')
    message = str(error.value)
    assert message.startswith(f'{tmp_path} cannot be written (Permission denied); copy the run to')
    assert '--out_dir' in message


@pytest.fixture
def rates_stars(evaluated, tmp_path):
    """The shared run with numbers for labels, evaluated on a file."""
    checkpoint = read_checkpoint(evaluated.out_dir / 'best.pt')
    checkpoint['labels'] = ['-1', '0', '1']
    torch.save(checkpoint, tmp_path / 'best.pt')
    path = tmp_path / 'rows.csv'
    path.write_text('body,mood\nawful,-1\n-lovely,0\nbanana,1.0\n')
    classifier = Classifier(str(tmp_path), 'cpu', 'float32')
    evaluate(classifier, file_examples(classifier, Table(str(path))), str(tmp_path))
    return tmp_path


def test_labels_and_numbers_are_never_altered(rates_stars):
    """The label -1 is no formula, while a text may be one."""
    rows = read_csv(rates_stars / 'predictions.csv')
    assert [row['label'] for row in rows] == ['-1', '0', '1']
    assert '-1' in {row['prediction'] for row in rows}
    assert [row['text'] for row in rows] == ['awful', "'-lovely", 'banana']


def test_unaltered_labels_are_read_again(rates_stars):
    rows, labels, _ = read_predictions(rates_stars)
    assert labels == ['-1', '0', '1']
    assert [row['truth'] for row in rows] == [0, 1, 2]
    assert [row['text'] for row in rows] == ['awful', '-lovely', 'banana']
    assert compare_runs(str(rates_stars), str(rates_stars))['n'] == 3


def test_another_checkpoint_keeps_its_evaluation_to_itself(copy, evaluated):
    """The last weights' scores must not stand for those of the best, which the report reads."""
    before = (copy / 'evaluation.json').read_bytes()
    path = str(copy / 'last.pt')
    last = Classifier(path, 'cpu', 'float32')
    evaluation = evaluate(last, evaluated.test_examples, path)
    assert evaluation['files']['predictions'] == str(copy / 'predictions-last.csv')
    assert (copy / 'predictions-last.csv').exists()
    assert (copy / 'evaluation.json').read_bytes() == before


@pytest.mark.parametrize(
    'run, split, input, name',
    [
        ('a', 'test', '', 'a/errors.csv'),
        ('a/best.pt', 'test', '', 'a/errors.csv'),
        ('a', 'val', '', 'a/errors-val.csv'),
        ('a', 'test', 'rows.csv', 'a/errors-input.csv'),
        ('a/last.pt', 'test', '', 'a/errors-last.csv'),
        ('a/last.pt', 'val', '', 'a/errors-last-val.csv'),
    ],
)
def test_only_the_best_on_the_test_split_has_the_plain_names(run, split, input, name):
    assert output_paths(run, split, input)['errors'] == name


def test_no_cell_is_run_as_a_formula(evaluated, tmp_path):
    """A text that begins with = would be, when a spreadsheet opens the table."""
    for cell in ('=1', '+1', '-1', '@a', '\tx'):
        assert quote_formula(cell) == "'" + cell
    for cell in ('fine', '', '3 = 3'):
        assert quote_formula(cell) == cell

    path = tmp_path / 'rows.csv'
    path.write_text('body,mood\n"=broken, awful",bad\n')
    examples = file_examples(evaluated.classifier, Table(str(path)))
    evaluate(evaluated.classifier, examples, str(tmp_path))
    assert read_csv(tmp_path / 'predictions.csv')[0]['text'] == "'=broken, awful"
    rows, _, logits = read_predictions(tmp_path)
    assert rows[0]['text'] == '=broken, awful'
    assert logits.min() < 0, 'a negative number is no formula'


@pytest.mark.parametrize('cell', ['=1', "'=1", "''=1", "'", "''", "'quoted'", '3 = 3', ''])
def test_a_quoted_cell_can_be_read_again(cell):
    """Also one that began with a quote before."""
    assert unquote_formula(quote_formula(cell)) == cell


def test_a_table_without_rows_can_be_read(copy):
    """The errors of a perfect run."""
    header = (copy / 'errors.csv').read_text().partition('\n')[0]
    (copy / 'errors.csv').write_text(header + '\n')
    os.remove(copy / 'evaluation.json')  # which has the checksum of another table
    rows, labels, logits = read_predictions(copy, 'errors')
    assert (rows, len(labels), logits.shape) == ([], 3, (0, 3))


def test_a_changed_table_is_refused(copy):
    """A killed evaluate.py left cut tables in 20 of 20 tries, from which report.py drew figures."""
    path = copy / 'predictions.csv'
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2].rpartition(b'\n')[0] + b'\n')
    with pytest.raises(ValueError, match=r'predictions\.csv is not as evaluate\.py has written it'):
        read_predictions(copy)
    with pytest.raises(ValueError, match='run python evaluate.py --out_dir='):
        compare_runs(copy, copy)
    path.write_bytes(whole)
    assert read_predictions(copy)


@pytest.mark.parametrize(
    'damage', ['missing', 'empty', 'column', 'short', 'long', 'logit', 'prediction']
)
def test_a_damaged_table_is_reported_with_the_remedy(copy, damage):
    path = copy / 'predictions.csv'
    lines = path.read_text().splitlines()
    if damage == 'missing':
        path.unlink()
    elif damage == 'empty':
        path.write_text('')
    else:
        if damage == 'column':
            lines[0] = lines[0].replace('text', 'txt')
        elif damage == 'short':
            lines[3] = lines[3].rpartition(',')[0]
        elif damage == 'long':
            lines[3] += ',1'
        elif damage == 'logit':
            lines[3] += 'x'
        elif damage == 'prediction':
            cells = lines[3].split(',')
            cells[3] = 'other'  # no logit belongs to this label
            lines[3] = ','.join(cells)
        path.write_text('\n'.join(lines))
    with pytest.raises(ValueError) as error:
        read_predictions(copy)
    message = str(error.value)
    assert str(path) in message and f'python evaluate.py --out_dir={copy}' in message


@pytest.mark.parametrize(
    'arguments, flag',
    [
        ({'split': 'val'}, ' --split=val'),
        ({'input': 'mine.csv'}, ' --input=mine.csv'),
        ({'table': 'errors'}, ''),
        ({'split': 'val', 'windows': True}, ' --split=val --windows=True'),
    ],
)
def test_the_remedy_is_the_command_that_writes_the_missing_file(tmp_path, arguments, flag):
    with pytest.raises(ValueError) as error:
        read_predictions(tmp_path, **arguments)
    assert str(error.value).endswith(f'run python evaluate.py --out_dir={tmp_path}{flag}')


def test_the_tables_are_read_without_torch():
    """report.py draws a run's figures on machines that have no torch."""
    code = 'import sys; sys.modules["torch"] = None; import nanosentiment.predictions'
    run(['-c', code], cwd=ROOT)


def test_wandb_gets_the_confusion_table_and_the_errors(evaluated):
    def confusion_matrix(y_true, preds, class_names):
        return metrics.confusion(y_true, preds, len(class_names)).tolist()

    plot = SimpleNamespace(confusion_matrix=confusion_matrix)
    wandb = SimpleNamespace(plot=plot, Table=lambda columns, data: (columns, data))
    plots = wandb_plots(wandb, evaluated.test, with_texts=True)
    columns, data = plots['errors']
    assert plots['confusion'] == evaluated.test['confusion']
    errors = read_csv(evaluated.out_dir / 'errors.csv')
    assert [dict(zip(columns, cells)) for cells in data] == errors
    assert 'errors' not in wandb_plots(wandb, evaluated.test, with_texts=False), 'texts are secret'


# -----------------------------------------------------------------------------
# comparison


def write_table(folder, rows):
    """A predictions.csv of rows (text, label, prediction) in a new folder. -> the folder"""
    folder.mkdir(parents=True)
    with open(folder / 'predictions.csv', 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['row', 'text', 'label', 'prediction'])
        for number, row in enumerate(rows):
            writer.writerow([number, *row])
    return str(folder)


def test_two_runs_are_compared_on_the_same_texts(tmp_path):
    """One of them may know a label more: "meh" is wrong, and no reason not to compare."""
    a = write_table(tmp_path / 'a', [('x', 'good', 'good'), ('y', 'bad', 'bad')])
    b = write_table(tmp_path / 'b', [('x', 'good', 'meh'), ('y', 'bad', 'bad')])
    comparison = compare_runs(a, b)
    assert comparison['run'] == b
    assert comparison['n'] == 2
    assert comparison['accuracy']['difference'] == 0.5
    assert (comparison['only_a_right'], comparison['only_b_right']) == (1, 0)


def test_seeds_are_compared_by_their_mean(tmp_path):
    write_table(tmp_path / 'a' / 'seed-1', [('x', 'good', 'good'), ('y', 'bad', 'bad')])
    write_table(tmp_path / 'a' / 'seed-2', [('x', 'good', 'bad'), ('y', 'bad', 'bad')])
    b = write_table(tmp_path / 'b', [('x', 'good', 'bad'), ('y', 'bad', 'good')])
    comparison = compare_runs(str(tmp_path / 'a'), b)
    assert comparison['n'] == 2, 'two seeds that read two texts have not read four'
    assert comparison['accuracy']['difference'] == 0.75
    assert 'mcnemar_p' not in comparison


@pytest.mark.parametrize(
    'rows',
    [
        [('x', 'good', 'good'), ('another text', 'bad', 'bad')],
        [('x', 'good', 'good'), ('y', 'good', 'bad')],  # another true label
        [('x', 'good', 'good')],
        [('x', 'good', 'good'), ('y', 'bad', 'bad'), ('z', 'bad', 'bad')],
    ],
)
def test_runs_on_other_rows_are_not_compared(tmp_path, rows):
    a = write_table(tmp_path / 'a', [('x', 'good', 'good'), ('y', 'bad', 'bad')])
    b = write_table(tmp_path / 'b', rows)
    with pytest.raises(ValueError, match='other rows'):
        compare_runs(a, b)


def test_folds_are_not_compared_on_their_validation_splits(tmp_path):
    """These overlap, so that a text has one prediction or several."""
    for k in (1, 2):
        write_table(tmp_path / f'fold-{k}', [('x', 'good', 'good')])
    with pytest.raises(ValueError, match='folds can be compared only on the test split'):
        compare_runs(str(tmp_path), str(tmp_path), 'val')


def test_a_run_that_was_not_evaluated_is_named(tmp_path):
    a = write_table(tmp_path / 'a', [('x', 'good', 'good')])
    with pytest.raises(ValueError, match='nowhere/predictions.csv cannot be read'):
        compare_runs(a, 'nowhere')
