"""report.py as a user runs it, and the README's table. python -m pytest tests/test_report.py"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, run
from evaluated_run import write_run

import report
from nanosentiment import llm
from nanosentiment.card import markdown_table
from nanosentiment.files import read_json_lines


def test_torch_is_not_imported():
    """Pictures of a run that was trained elsewhere must not need a PyTorch."""
    run(['-c', 'import sys; sys.modules["torch"] = None; import report'], cwd=ROOT)


# -----------------------------------------------------------------------------
# page, pictures and card


def test_page_pictures_and_card_are_made(tmp_path):
    """Without a display: the user's matplotlib may be set to open windows."""
    pytest.importorskip('matplotlib')
    write_run(tmp_path)
    result = run('report.py', f'--out_dir={tmp_path}', env={'MPLBACKEND': 'tkagg'})
    names = [os.path.basename(path) for path in result.last['files']]
    pictures = ['curves.png', 'confusion.png', 'reliability.png', 'length.png', 'seeds.png']
    assert names == ['report.html', *pictures, 'card.md']
    for name in names:
        assert (tmp_path / name).exists()


def test_without_evaluation_json_there_are_page_and_pictures_but_no_card(tmp_path):
    """One line says which command is missing."""
    pytest.importorskip('matplotlib')
    write_run(tmp_path, with_evaluation=False)
    result = run('report.py', f'--out_dir={tmp_path}', status=2)
    assert f'python evaluate.py --out_dir={tmp_path}' in result.err
    assert result.err.count('\n') == 1
    assert (tmp_path / 'report.html').exists()
    assert f'{tmp_path}/seeds.png' in result.out
    assert (tmp_path / 'seeds.png').exists()
    assert not (tmp_path / 'card.md').exists()


def test_a_folder_of_seeds_has_one_picture_of_all(tmp_path):
    """The other files are about the first seed, and that is said. Ten comes after two."""
    pytest.importorskip('matplotlib')
    for seed in (10, 2):
        write_run(tmp_path / f'seed-{seed}', seed=seed)
    (tmp_path / 'seed-1').mkdir()  # still in training
    result = run('report.py', f'--out_dir={tmp_path}')
    assert (tmp_path / 'seeds.png').exists()
    assert (tmp_path / 'seed-2' / 'card.md').exists()
    assert not (tmp_path / 'seed-10' / 'card.md').exists()
    assert f'about {tmp_path}/seed-2' in result.out


def test_without_matplotlib_there_are_page_and_card(tmp_path):
    """One line says what to install for the pictures."""
    write_run(tmp_path)
    code = 'import sys; sys.modules["matplotlib"] = None; '
    code += 'import report; report.run_script(report.main)'
    result = run(['-c', code], f'--out_dir={tmp_path}', cwd=ROOT)
    assert 'pip install matplotlib' in result.err
    assert result.err.count('\n') == 1
    assert result.last['files'] == [f'{tmp_path}/report.html', f'{tmp_path}/card.md']


@pytest.mark.parametrize('line', ['{"loss": 1.0}', '5', '{"iter": 1, "epoch": "x", "loss": 1}'])
def test_a_damaged_log_is_one_line(tmp_path, line):
    write_run(tmp_path)
    (tmp_path / 'metrics.jsonl').write_text(line + '\n')
    result = run('report.py', f'--out_dir={tmp_path}', status=2)
    assert 'metrics.jsonl cannot be used' in result.err
    assert result.err.count('\n') == 1


def test_damaged_predictions_are_one_line(tmp_path):
    pytest.importorskip('matplotlib')
    write_run(tmp_path)
    (tmp_path / 'predictions.csv').write_text('')
    result = run('report.py', f'--out_dir={tmp_path}', status=2)
    assert 'predictions.csv' in result.err
    assert f'python evaluate.py --out_dir={tmp_path}' in result.err
    assert result.err.count('\n') == 1


def test_a_language_model_that_cannot_be_asked_is_one_line(tmp_path):
    write_run(tmp_path)
    result = run('report.py', f'--out_dir={tmp_path}', '--llm=ftp://x', '--llm_model=m', status=2)
    assert '--llm' in result.err
    assert result.err.count('\n') == 1


def write_summary(folder, accuracy, seconds, epoch):
    """What compare reads of a finished run: summary.json, and its metrics.jsonl of 20 lines."""
    write_run(folder)
    test = {'accuracy': accuracy, 'macro_f1': 0.5, 'recall': {'a': 0.4, 'b': 0.6}}
    summary = {'dataset': 'mine', 'n_params': 12345, 'n_test': 100, 'best': {'epoch': epoch}}
    summary |= {'test': test, 'seconds': seconds, 'train_examples_per_s': 50.0}
    (folder / 'summary.json').write_text(json.dumps(summary))


def test_runs_are_compared_in_a_table_and_a_picture(tmp_path):
    """Of several seeds the table has the means, so that one lucky seed does not win."""
    pytest.importorskip('matplotlib')
    write_summary(tmp_path / 'out/one', 0.75, 90, 2.0)
    write_summary(tmp_path / 'out/two/seed-1', 0.8, 60, 1.0)
    write_summary(tmp_path / 'out/two/seed-2', 0.9, 120, 2.0)

    result = run('report.py', f'--compare={tmp_path}/out/one, {tmp_path}/out/two')

    assert result.last['files'] == [f'{tmp_path}/out/comparison.{kind}' for kind in ('md', 'png')]
    table = (tmp_path / 'out/comparison.md').read_text()
    assert table in result.out
    cells = [line.strip('| ').split(' | ') for line in table.splitlines()]
    assert cells[2][:5] == ['one', 'mine', '12,345', '100', '0.750']
    assert cells[2][7:] == ['2.00', '1.5', '50']
    assert cells[3][4:6] == ['0.850 ± 0.071 (2)', '0.767–0.907']
    assert cells[3][7:] == ['1.50', '1.5', '50']
    assert (tmp_path / 'out/comparison.png').stat().st_size > 1000


def test_a_run_that_is_not_finished_is_not_compared(tmp_path):
    write_run(tmp_path)
    result = run('report.py', f'--compare={tmp_path}', status=2)
    assert result.err.count('\n') == 1
    assert f'{tmp_path} holds no finished run' in result.err


def test_answers_that_are_kept_need_no_server(tmp_path, monkeypatch):
    """The last line of stdout is JSON with the counts."""
    write_run(tmp_path)
    address = 'http://127.0.0.1:9/v1'
    monkeypatch.setattr(llm, 'ask', lambda url, key, prompt, config: 'positive')
    config = {'llm': address, 'llm_model': 'm', 'llm_rows': 'errors', 'llm_n': 20}
    config['llm_prompt'] = report.llm_prompt
    llm.ask_about_rows(tmp_path, config)
    result = run('report.py', f'--out_dir={tmp_path}', f'--llm={address}', '--llm_model=m')
    assert result.last['llm']['only_llm_right'] == 2
    assert result.last['files'] == [f'{tmp_path}/errors_llm.csv']


# -----------------------------------------------------------------------------
# JSON lines


@pytest.mark.parametrize(
    'text, expected',
    [
        ('{"a": 1}\n\n[2]\n', [{'a': 1}, [2]]),
        ('{"a": 1}\n{"a": 2}', [{'a': 1}, {'a': 2}]),  # only the line end is missing
        ('{"a": 1}\n{"a": ', [{'a': 1}]),  # cut short by a kill
        ('', []),
    ],
)
def test_only_a_last_line_that_was_cut_is_left_out(tmp_path, text, expected):
    path = tmp_path / 'lines.jsonl'
    path.write_text(text)
    assert read_json_lines(path) == expected


def test_a_broken_line_elsewhere_is_named(tmp_path):
    path = tmp_path / 'lines.jsonl'
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(ValueError, match='lines.jsonl, line 2 is not JSON'):
        read_json_lines(path)
    assert read_json_lines(tmp_path / 'missing.jsonl') == []


# -----------------------------------------------------------------------------
# README


def write_lines(path, lines):
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def write_results(folder):
    """One config with two seeds, one of them twice, and folds; one without a run; baselines."""
    config_dir = folder / 'config'
    results_dir = folder / 'results'
    config_dir.mkdir()
    results_dir.mkdir()
    small = "# ...\nout_dir = 'out/small'\ndataset = 'mail'\n"
    (config_dir / 'small.py').write_text(small)
    (config_dir / 'large.py').write_text("dataset = 'mail'\nout_dir = 'out/large'\n")

    def line(seed, accuracy, **changes):
        recall = {'a': 0.9, 'b': accuracy - 0.5}
        test = {'accuracy': accuracy, 'macro_f1': accuracy, 'recall': recall}
        result = {'run': 'out/small/x', 'dataset': 'mail', 'n_test': 30, 'seed': seed, 'fold': 0}
        return result | {'seconds': 120, 'test': test} | changes

    lines = [line(1, 0.5), line(2, 0.7), line(1, 0.8)]
    lines += [line(1, 0.1, fold=2), line(3, 0.9, test=None)]
    write_lines(results_dir / 'small.jsonl', lines)
    write_lines(results_dir / 'other.jsonl', [line(1, 0.6, dataset='demo')])

    baseline = {'dataset': 'mail', 'n_test': 30, 'accuracy': 0.4, 'macro_f1': 0.3}
    baseline |= {'recall': {'a': 1.0, 'b': 0.0}, 'folds_macro_f1': None}
    majority = baseline | {'model': 'majority'}
    bag_of_words = baseline | {'model': 'bag of words', 'folds_macro_f1': 0.55}
    write_lines(results_dir / 'baselines.jsonl', [majority, bag_of_words])

    folds = {'dataset': 'mail', 'run': 'out/small/folds', 'folds': 5, 'n': 970, 'accuracy': 0.7}
    folds |= {'macro_f1': 0.66, 'macro_f1_sd': 0.02, 'macro_f1_ci': [0.6, 0.71]}
    folds['command'] = 'python train.py config/small.py'
    write_lines(results_dir / 'folds.jsonl', [folds])


def read_table(table):
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in table.split('\n')]


def test_results_table_by_hand(tmp_path):
    """
    Seed 1 was run again, and 0.800 counts. A single fold and a run without test scores are no
    seeds. The deviation of .8 and .7 is 0.071; one seed has none.
    """
    write_results(tmp_path)
    table = report.results_table(tmp_path / 'results', tmp_path / 'config')
    header, _, *rows = read_table(table)
    demo = ['30', '0.600', '0.423–0.754', '0.600', 'b 0.100', '']
    majority = ['30', '0.400', '0.246–0.577', '0.300', 'b 0.000', '']
    bag_of_words = ['30', '0.400', '0.246–0.577', '0.300', 'b 0.000', '0.550']
    mail = ['30', '0.750 ± 0.071 (2)', '0.573–0.870', '0.750', 'b 0.250', '0.660']
    assert len(header) == 8
    assert rows == [
        ['demo', '`small`', *demo],
        ['mail', 'majority', *majority],
        ['mail', 'bag of words', *bag_of_words],
        ['mail', '`small`', *mail],
    ]


def test_no_row_of_the_readme_is_wider_than_a_screen():
    text = (Path(ROOT) / 'README.md').read_text(encoding='utf-8')
    assert max(map(len, text.split('\n'))) <= 120


def test_the_command_decides_whose_line_it_is():
    """Then the run's folder, then the file's name; what says nothing is no folder of its own."""
    configs = {'small': {'out_dir': 'out/small'}, 'large': {'out_dir': 'out/large'}, 'bare': {}}
    command = 'python train.py config/large.py --seeds=5'
    run = 'out/small/seed-1'
    assert report.find_config({'command': command, 'run': run}, 'bare', configs) == 'large'
    assert report.find_config({'run': run}, 'bare', configs) == 'small'
    assert report.find_config({}, 'bare', configs) == 'bare'
    assert report.find_config({}, 'other', configs) == 'other'


def test_a_markdown_table_has_a_line_below_its_head():
    table = markdown_table(['a', 'b'], [[1, 0.5]])
    assert table == '| a | b |\n| --- | --- |\n| 1 | 0.500 |'


def test_the_table_is_filled_in_and_nothing_else(tmp_path):
    """README.md is written over, so what stands around the two marks must stay."""
    write_results(tmp_path)
    readme = tmp_path / 'README.md'
    readme.write_text('before\n<!-- results -->\nstale\n<!-- /results -->\nafter\n')
    report.fill_readme(readme)
    before, table, after = re.split('<!-- /?results -->', readme.read_text())
    assert (before, after) == ('before\n', '\nafter\n')
    assert '`small`' in table
    assert 'stale' not in table


def test_a_readme_without_both_marks_is_left_alone(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text('before\n<!-- results -->\nstale\n')
    with pytest.raises(ValueError, match='add them around the table'):
        report.fill_readme(readme)
    assert readme.read_text() == 'before\n<!-- results -->\nstale\n'


def test_the_command_fills_the_readme_beside_it(tmp_path):
    for name in ('report.py', 'configurator.py'):
        shutil.copy(os.path.join(ROOT, name), tmp_path)
    shutil.copytree(os.path.join(ROOT, 'nanosentiment'), tmp_path / 'nanosentiment')
    write_results(tmp_path)
    readme = tmp_path / 'README.md'
    readme.write_text('<!-- results -->\n<!-- /results -->\n')
    result = run([str(tmp_path / 'report.py')], '--readme=True')
    assert '`small`' in readme.read_text()
    assert result.last == {'files': [str(readme)]}


def test_the_readme_shows_the_results():
    """No figure in it is typed by hand."""
    text = (Path(ROOT) / 'README.md').read_text(encoding='utf-8')
    parts = re.split('<!-- /?results -->', text)
    assert len(parts) == 3, 'README.md needs the lines <!-- results --> and <!-- /results -->'
    table = report.results_table(os.path.join(ROOT, 'results'), os.path.join(ROOT, 'config'))
    assert parts[1].strip() == table, 'run python report.py --readme=True'
