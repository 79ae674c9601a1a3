"""
Makes something to look at from a run's files, after evaluate.py: a page on which its errors can be
looked through, pictures and a model card, a language model's answers beside ours, several runs
beside each other, or the README's table of results. It needs no torch.
$ python report.py --out_dir=out/sentiment_scratch  # report.html, curves.png, ... and card.md
$ python report.py --llm=http://localhost:11434/v1 --llm_model=llama3.2
$ python report.py --compare=out/minilm_sst2,out/mpnet_sst2  # their scores and curves together
$ python report.py --readme=True
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from configurator import configure, print_error, run_script
from nanosentiment.browser import write_browser
from nanosentiment.card import format_value, markdown_table, model_card
from nanosentiment.files import (
    check_fields,
    read_json_lines,
    read_sealed_json,
    to_json,
    write_whole,
)
from nanosentiment.llm import ask_about_rows, print_answers
from nanosentiment.metrics import wilson
from nanosentiment.plots import draw_figures, save_comparison
from nanosentiment.predictions import (
    evaluate_command,
    read_evaluation_if_any,
    read_predictions,
)
from nanosentiment.repeats import are_folds, find_runs

# -----------------------------------------------------------------------------
# I/O
out_dir = 'out/sentiment_scratch'  # a run's folder, or the one above seed-1, ... or fold-1, ...
compare = ''  # folders with commas between them: a table and a picture of these runs, nothing else
readme = False  # fill in the table of results in README.md, and nothing else
# card
language = ''  # of the texts: en, tr, ...; '' leaves it out
# llm
llm = ''  # an OpenAI-compatible address; the environment variable LLM_API_KEY may hold its key
llm_model = ''  # as the server calls it
llm_rows = 'errors'  # the most confident errors; 'all': any texts, drawn at random
llm_n = 20  # texts to ask about; answers are kept, so that more later cost only what is new
llm_prompt = (
    'Answer with one of these labels and nothing else: {labels}.\n\nText to classify:\n{text}'
)
llm_timeout = 60.0  # seconds without an answer; a large model on a CPU may need more
llm_retries = 4  # after HTTP 429 or 5xx, or a broken connection
llm_backoff = 1.0  # seconds before the first retry, doubled each time
# -----------------------------------------------------------------------------
# page, pictures and card


def choose_run(parent):
    """-> the folder of the run to report on, and the folders of all seeds or folds."""
    # a seed that is still in training has no predictions yet
    runs = [Path(run) for run in find_runs(parent)]
    runs = [run for run in runs if (run / 'predictions.csv').exists()]
    if not runs:
        runs = [parent]
    if (parent / 'predictions.csv').exists():
        return parent, runs
    return runs[0], runs


def name_run(folder, parent):
    """What the run in `folder` is called, which is parent or a run of it: 'minilm_sst2-seed-1'."""
    name = folder.resolve().name
    if folder != parent:
        name = f'{parent.resolve().name}-{name}'
    return name


NUMBER = (int, float, type(None))  # None is a loss that was not finite
# of a line of metrics.jsonl that is an evaluation
EVALUATED = ('train_loss', 'val_loss', 'val_accuracy', 'val_macro_f1')


def read_log(folder):
    """The lines of metrics.jsonl of a run, [] without it. ValueError if one is something else."""
    path = folder / 'metrics.jsonl'
    log = read_json_lines(path)
    for line in log:
        try:
            check_log_line(line)
        except ValueError as error:
            raise ValueError(f'{path} cannot be used: {error}; remove that line') from None
    return log


def check_log_line(line):
    """ValueError unless a line of metrics.jsonl is a step or an evaluation, all of numbers."""
    if not isinstance(line, dict):
        raise ValueError('a line is no object')
    required = {'iter': int, 'epoch': (int, float)}
    if 'loss' not in line:
        required |= dict.fromkeys(EVALUATED, NUMBER)
    others = {name: NUMBER for name in line if name not in required}
    check_fields(line, required, others, 'a line')


def write_card(folder, parent):
    """Writes card.md of the run in `folder`, which is parent or a run of it. Returns its path."""
    evaluation = read_evaluation_if_any(folder)
    if not evaluation:
        path = folder / 'evaluation.json'
        raise ValueError(f'the card needs {path}; run {evaluate_command(folder)} first')
    errors = read_predictions(folder, 'errors')[0]
    card_path = folder / 'card.md'
    write_whole(card_path, model_card(evaluation, errors, name_run(folder, parent), language))
    return card_path


# -----------------------------------------------------------------------------
# the README's table


def read_configs(config_dir):
    """config/*.py -> {name: its dataset and out_dir, as far as it sets them}"""
    configs = {}
    for path in sorted(config_dir.glob('*.py')):
        text = path.read_text(encoding='utf-8')
        settings = re.findall(r"^(dataset|out_dir) = '(.*?)'", text, re.MULTILINE)
        configs[path.stem] = dict(settings)
    return configs


def find_config(result, file_name, configs):
    """
    The config that made a line of results/: the one in its command, else the one in whose out_dir
    its run lies, else the one that is called like the file. If there is none, the file's name.
    """
    for name in configs:
        if f'config/{name}.py' in result.get('command', ''):
            return name
    for name, settings in configs.items():
        if 'run' not in result or 'out_dir' not in settings:
            continue
        if f'{result["run"]}/'.startswith(f'{settings["out_dir"]}/'):
            return name
    return file_name


def group_results(results_dir, configs):
    """
    The lines of results/*.jsonl in one list for each row of the table: {(dataset, is_ours, name):
    lines}. A row is a config, where it is ours, or a baseline.
    """
    groups = {}
    for path in sorted(results_dir.glob('*.jsonl')):
        for result in read_json_lines(path):
            if 'model' in result:
                key = (result['dataset'], False, result['model'])
            else:
                key = (result['dataset'], True, find_config(result, path.stem, configs))
            groups.setdefault(key, []).append(result)
    return groups


def select_seeds(results):
    """The lines that are a run with test scores; of the runs with one seed the newest."""
    by_seed = {}
    for i, result in enumerate(results):
        is_summary_of_folds = 'folds' in result
        is_fold = bool(result.get('fold'))
        # a baseline has its scores in the line itself
        has_test = result.get('test', result) is not None
        if has_test and not is_summary_of_folds and not is_fold:
            by_seed[result.get('seed', f'line {i}')] = result
    return list(by_seed.values())


def seed_cells(seeds):
    """The cells test rows, accuracy ± sd (number of seeds), interval, macro-F1, lowest recall."""
    scores = [result.get('test', result) for result in seeds]
    accuracies = [score['accuracy'] for score in scores]
    mean = np.mean(accuracies)
    accuracy = format_value(mean)
    if len(seeds) > 1:
        accuracy += f' ± {format_value(np.std(accuracies, ddof=1))} ({len(seeds)})'

    # more seeds do not narrow the interval: they were tested on the same rows
    n_test = seeds[0]['n_test']
    low, high = wilson(mean * n_test, n_test)
    interval = f'{low:.3f}–{high:.3f}'

    macro_f1 = np.mean([score['macro_f1'] for score in scores])
    recalls = {}
    for label in scores[0]['recall']:
        recalls[label] = np.mean([score['recall'][label] for score in scores])
    worst_label = min(recalls, key=recalls.get)
    lowest_recall = f'{worst_label} {format_value(recalls[worst_label])}'
    return [n_test, accuracy, interval, macro_f1, lowest_recall]


def folds_cell(results):
    """
    Macro-F1 in cross-validation, of all rows together; '' if that was not done.

    A baseline's line has it as folds_macro_f1. Ours is a line of its own with folds, their number.
    """
    for result in results:
        if result.get('folds_macro_f1'):  # of a baseline
            return format_value(result['folds_macro_f1'])
    for result in results:
        if 'folds' in result:
            return format_value(result['macro_f1'])
    return ''


def results_table(results_dir, config_dir):
    """A Markdown table of what is measured: configs and baselines, the best of a data set last."""
    configs = read_configs(Path(config_dir))
    groups = group_results(Path(results_dir), configs)
    rows = []
    for (dataset, is_ours, name), results in groups.items():
        seeds = select_seeds(results)
        if not seeds:  # only some folds, or no test split
            continue
        model = f'`{name}`' if is_ours else name
        rows.append([dataset, model, *seed_cells(seeds), folds_cell(results)])
    rows.sort(key=lambda row: (row[0], row[3]))  # by data and accuracy
    header = ['data', 'model', 'rows', 'accuracy (seeds)', '95 %', 'macro-F1', 'lowest recall']
    header.append('5-fold macro-F1')
    return markdown_table(header, rows)


def fill_readme(path):
    """Puts the table of results between the two marks of README.md, and changes nothing else."""
    text = path.read_text(encoding='utf-8')
    parts = re.split('(<!-- /?results -->)', text)
    if parts[1::2] != ['<!-- results -->', '<!-- /results -->']:
        what = f'{path} must have the lines <!-- results --> and <!-- /results --> once each'
        raise ValueError(f'{what}; add them around the table')
    table = results_table(path.parent / 'results', path.parent / 'config')
    parts[2] = f'\n{table}\n'
    write_whole(path, ''.join(parts))


# -----------------------------------------------------------------------------
# several runs beside each other


SUMMARY = {
    'dataset': str,
    'n_params': int,
    'best': (dict, type(None)),
    'test': (dict, type(None)),
    'seconds': (float, int),
    'train_examples_per_s': (float, int),
}


def write_comparison(folders):
    """
    Writes comparison.md and comparison.png beside the runs in these folders, and prints the table.

    Of a folder of several seeds the scores and times are means; the curves are of the first seed.
    Returns the paths of the two files. ValueError if a run is not finished.
    """
    rows = []
    logs = {}
    for folder in folders:
        runs = [Path(run) for run in find_runs(folder)]
        summaries = []
        for run in runs:
            path = run / 'summary.json'
            if not path.exists():
                raise ValueError(
                    f'{run} holds no finished run; train it to its end, or leave it out'
                )
            summaries.append(read_sealed_json(path, f'train {run} again', SUMMARY))
        if any(summary['test'] is None for summary in summaries):
            raise ValueError(f'{folder} was not judged on a test split; leave it out')
        name = folder.resolve().name
        rows.append([name, *comparison_cells(summaries)])
        logs[name] = read_log(runs[0])

    header = ['run', 'data', 'parameters', 'test texts', 'accuracy', '95 %', 'macro-F1']
    header += ['epoch of the best', 'minutes', 'texts/s in training']
    table = markdown_table(header, rows)
    print(table)
    parent = Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
    table_path = parent / 'comparison.md'
    write_whole(table_path, f'{table}\n')
    picture_path = parent / 'comparison.png'
    save_comparison(picture_path, logs)
    return [table_path, picture_path]


def comparison_cells(summaries):
    """What the table of write_comparison says of the seeds of one run."""
    n_test, accuracy, interval, macro_f1, _ = seed_cells(summaries)
    epochs = [summary['best']['epoch'] for summary in summaries]
    minutes = [summary['seconds'] / 60 for summary in summaries]
    speeds = [summary['train_examples_per_s'] for summary in summaries]
    return [
        summaries[0]['dataset'],
        f'{summaries[0]["n_params"]:,}',
        n_test,
        accuracy,
        interval,
        macro_f1,
        f'{np.mean(epochs):.2f}',
        f'{np.mean(minutes):.1f}',
        f'{np.mean(speeds):,.0f}',
    ]


# -----------------------------------------------------------------------------


def make_reports(config):
    """
    Makes what the settings ask for, and names each file once it is there.

    Returns the dict for the last line: the files, and a language model's counts.
    """
    parent = Path(out_dir)
    if readme:
        readme_path = Path(__file__).resolve().parent / 'README.md'
        fill_readme(readme_path)
        print(readme_path)
        return {'files': [str(readme_path)]}

    if compare:
        files = write_comparison([Path(name.strip()) for name in compare.split(',')])
        for path in files:
            print(path)
        return {'files': [str(path) for path in files]}

    folder, runs = choose_run(parent)
    if are_folds(runs):
        print(f'{parent}, with pictures and a card of {folder.name}:')
    else:
        print(f'about {folder}:')
    if llm:
        table_path, summary = ask_about_rows(folder, config)
        print_answers(summary)
        print(table_path)
        return {'files': [str(table_path)], 'llm': summary}

    # the page and the pictures can do without evaluation.json, but not the card
    evaluation = read_evaluation_if_any(folder)
    log = read_log(folder)
    page_name = parent.resolve().name if are_folds(runs) else name_run(folder, parent)
    paths = [write_browser(folder, runs, parent, page_name, log)]
    print(paths[-1])
    if find_spec('matplotlib') is None:
        print_error('there are no pictures without matplotlib; pip install matplotlib')
    else:
        paths += draw_figures(folder, runs, parent, evaluation, log)
        for path in paths[1:]:
            print(path)
    paths.append(write_card(folder, parent))
    print(paths[-1])
    return {'files': [str(path) for path in paths]}


def main():
    config = configure(globals())
    print(to_json(make_reports(config)))


if __name__ == '__main__':
    run_script(main)
