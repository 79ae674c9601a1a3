"""The model card says what evaluation.json says. python -m pytest tests/test_card.py"""

import json
import re
import shlex

import pytest
from evaluated_run import write_run

from nanosentiment.card import (
    command_without_folders,
    format_value,
    model_card,
    without_folders,
)
from nanosentiment.metrics import wilson
from nanosentiment.predictions import read_predictions


def make_card(folder, language='', **options):
    """-> what evaluation.json holds, and the card."""
    evaluation = write_run(folder, **options)
    errors = read_predictions(folder, 'errors')[0]
    return evaluation, model_card(evaluation, errors, 'my-run', language)


def read_tables(text):
    """The rows of all Markdown tables of a card -> {first cell: the other cells}."""
    rows = {}
    for line in text.split('\n'):
        if line.startswith('|'):
            first, *others = [cell.strip() for cell in line.strip('|').split('|')]
            rows[first] = others
    return rows


def test_values_are_formatted_for_tables():
    assert format_value(0.7333) == '0.733'
    assert format_value((0.521, 1.0)) == '0.521 to 1.000'
    assert format_value(None) == ''
    assert format_value(30) == '30'


def test_the_head_is_what_the_hub_reads(tmp_path):
    """YAML between the first two lines of ---."""
    yaml = pytest.importorskip('yaml')
    evaluation, text = make_card(tmp_path)

    head = yaml.safe_load(text.split('---\n')[1])

    assert head['pipeline_tag'] == 'text-classification'
    assert head['datasets'] == ['mine-yours-v1.2']
    assert 'language' not in head
    model = head['model-index'][0]
    assert model['name'] == 'my-run'
    result = model['results'][0]
    assert result['dataset']['split'] == 'test'
    values = [metric['value'] for metric in result['metrics']]
    assert values == [evaluation['accuracy'], evaluation['macro_f1']]


def test_the_head_names_the_language_if_it_is_given(tmp_path):
    yaml = pytest.importorskip('yaml')
    _, text = make_card(tmp_path, language='no')  # which YAML takes for False
    assert yaml.safe_load(text.split('---\n')[1])['language'] == 'no'


def test_the_tables_hold_the_figures_of_evaluation_json(tmp_path):
    """No figure is typed by hand: each cell is one of the file's numbers, to three digits."""
    evaluation, text = make_card(tmp_path)
    rows = read_tables(text)

    scores = [evaluation[name] for name in ('accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci')]
    assert rows['this model'] == [format_value(value) for value in scores]
    assert rows['bag of words'] == ['0.820', '', '0.800', '']
    assert rows['majority'] == ['0.345', '', '0.171', '']
    assert rows['0.500'] == ['0.967', '0.810']
    assert rows['0.900'] == ['0.200', '']
    for i, (label, scores) in enumerate(evaluation['per_class'].items()):
        hits = evaluation['confusion'][i][i]
        n_predicted = sum(row[i] for row in evaluation['confusion'])
        n_true = scores['support']
        expected = [scores['precision'], wilson(hits, n_predicted)]
        expected += [scores['recall'], wilson(hits, n_true), scores['f1'], n_true]
        assert rows[label] == [format_value(value) for value in expected]


def test_the_text_holds_the_figures_of_evaluation_json(tmp_path):
    evaluation, text = make_card(tmp_path)
    figures = [
        '0.543',
        '0.087',
        '0.034',
        '2.000',
        '1,234,567',
        '777',
        '193',
        'c0ffee',
        'torch 2.13',
    ]
    for figure in [*figures, evaluation['command']]:
        assert figure in text, figure
    # of 30 texts every fifth is wrong
    assert '20.0 % of its answers on test were wrong' in text


def test_the_settings_can_be_read_again(tmp_path):
    """They stand in the card as JSON."""
    evaluation, text = make_card(tmp_path)
    lines = [line for line in text.split('\n') if line.startswith('    {')]
    assert [json.loads(line) for line in lines] == [evaluation['settings']]


def test_only_a_baseline_that_is_as_good_is_named_as_a_limit(tmp_path):
    _, text = make_card(tmp_path)
    assert 'Prefer the bag of words baseline' in text
    assert 'the majority baseline' not in text
    assert 'the this model' not in text


def test_a_text_cannot_break_the_card(tmp_path):
    """It stands on one indented line after an empty one, where Markdown shows it as it is."""
    _, text = make_card(tmp_path)
    lines = text.split('\n')
    numbers = [i for i, line in enumerate(lines) if 'HYPERLINK' in line]
    assert len(numbers) == 3
    for i in numbers:
        assert lines[i].startswith('    =HYPERLINK')
        assert len(lines[i]) < 320
        assert lines[i - 1] == ''
    assert lines[0] == '---'
    assert lines.count('---') == 2


def test_a_label_cannot_break_the_card(tmp_path):
    _, text = make_card(tmp_path, labels=['a|b', '**c**', '`d`\n---', '__e__'])
    for escaped in (r'a\|b', r'\*\*c\*\*', r'\`d\`', r'\_\_e\_\_'):
        assert escaped in text
    assert text.split('\n').count('---') == 2
    # the table of labels has as many columns in each row as in its head
    n_columns = set()
    for line in text.split('\n'):
        if line.startswith(('| a', '| label')):
            n_columns.add(len(re.split(r'(?<!\\)\|', line)))
    assert len(n_columns) == 1


@pytest.mark.parametrize(
    'value, shown',
    [
        ('/home/ann/mine.csv', 'mine.csv'),
        ('~/data/mine.csv', 'mine.csv'),
        ('/home/ann/my data/x.csv', 'x.csv'),
        (r'C:\Users\ann\x.csv', 'x.csv'),
        ('~ann/x/y.csv', 'y.csv'),
        ('/', '/'),  # a delimiter
        ('https://example.org/a/b', 'https://example.org/a/b'),
        ('out/a/b', 'out/a/b'),
        (3, 3),
    ],
)
def test_a_card_names_no_folders_of_the_machine(value, shown):
    """It is made to be shared."""
    assert without_folders(value) == shown
    command = shlex.join(['python', 'train.py', f'--dataset={value}', '--seed=1'])
    expected = shlex.join(['python', 'train.py', f'--dataset={shown}', '--seed=1'])
    assert command_without_folders(command) == expected
