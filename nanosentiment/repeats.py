"""
Repeats of one run: several seeds, or the folds of a cross-validation.

`train.py --seeds=5` trains into out_dir/seed-1 to seed-5, `--folds=5` into fold-1 to fold-5, each
in a process of its own. What is finished is not done again, and what was broken off goes on from
its last checkpoint.
"""

import os
import signal
import subprocess
import sys

import numpy as np

from nanosentiment.files import hide_home, lock_folder, to_json
from nanosentiment.metrics import (
    METRICS,
    format_metric,
    macro_f1,
    macro_f1_ci,
    per_class,
    share_ci,
)
from nanosentiment.predictions import evaluate_command, read_evaluation

# the environment variable that tells a seed or fold which process has started it
PARENT = 'NANOSENTIMENT_PARENT'


def find_runs(out_dir):
    """
    The runs in a folder: those of its seeds, or else of its folds, or else the folder itself.

    Seeds and folds are never mixed, because they are tested on different texts.
    """
    for kind in ('seed', 'fold'):
        numbers = []
        names = os.listdir(out_dir) if os.path.isdir(out_dir) else []
        for name in names:
            prefix, _, number = name.rpartition('-')
            if prefix == kind and number.isdecimal():
                numbers.append(number)
        if numbers:
            numbers.sort(key=int)  # 2 before 10
            return [os.path.join(out_dir, f'{kind}-{number}') for number in numbers]
    return [out_dir]


def are_folds(runs):
    """Are these runs, as `find_runs` returns them, the folds of a cross-validation?"""
    return len(runs) > 1 and os.path.basename(runs[0]).startswith('fold-')


# -----------------------------------------------------------------------------
# training


def run_repeats(config, changeable):
    """
    Runs train.py once for each seed or fold, one after the other, and prints the means.

    config holds the settings of train.py; changeable names those in which a finished run may differ
    from it. Returns the exit status to leave with: that of the first run that fails or is stopped,
    or 0. Raises ValueError if the settings do not fit, or if a finished run had other settings.
    """
    if config['seeds'] and config['folds']:
        what = f'seeds={config["seeds"]} and folds={config["folds"]} do not go together'
        raise ValueError(f'{what}; set one to 0')
    kind = 'fold' if config['folds'] else 'seed'
    n = config[f'{kind}s']
    if n < 2:
        what = f'{kind}s={n} is too few: it is the number of runs to train'
        raise ValueError(f'{what}; set it to 2 or more, or --{kind} for a single run')
    if 'RANK' in os.environ:
        what = f'{kind}s={n} starts its runs one after the other, without torchrun'
        raise ValueError(f'{what}; start it with python, or set --{kind} for a single run')

    with lock_folder(config['out_dir']):
        return run_each(config, changeable, kind, n)


def run_each(config, changeable, kind, n):
    """The runs 1 to n of run_repeats, in a folder that nobody else trains in."""
    evaluations = []
    for k in range(1, n + 1):
        run = os.path.join(config['out_dir'], f'{kind}-{k}')
        remove_stale_summary(run)
        if not is_finished(run):
            print(f'{kind} {k} of {n}: {run}', flush=True)
            status = train_once(run, kind, k)
            # it has said why it ended
            if status != 0 or not is_finished(run):
                return status
        evaluation_path = os.path.join(run, 'evaluation.json')
        if not os.path.exists(evaluation_path):
            what = f'{run} has no test split to be compared on'
            remedy = 'set test_fraction or test_file, and choose another out_dir'
            raise ValueError(f'{what}; {remedy}')
        evaluation = read_evaluation(evaluation_path, f'run {evaluate_command(run)}')
        check_same_settings(run, evaluation['settings'], config, kind, changeable)
        evaluations.append(evaluation)

    summary = summarize(config['out_dir'], evaluations)
    print_summary(summary)
    print(to_json(summary))
    return 0


def is_finished(run):
    """Has the run been trained to its end, so that it has a summary?"""
    return os.path.exists(os.path.join(run, 'summary.json'))


def remove_stale_summary(run):
    """
    Removes a summary that is older than last.pt: the run was begun anew then, and broken off.

    Nobody shall take it for the summary of the new run.
    """
    summary_path = os.path.join(run, 'summary.json')
    last_path = os.path.join(run, 'last.pt')
    if not os.path.exists(summary_path) or not os.path.exists(last_path):
        return
    if os.path.getmtime(last_path) > os.path.getmtime(summary_path):
        os.remove(summary_path)


def train_once(run, kind, k):
    """One seed or fold in a process of its own, with the flags of this one. Its exit status."""
    command = [sys.executable, *sys.argv, f'--out_dir={run}', '--seeds=0', f'--{kind}={k}']
    if os.path.exists(os.path.join(run, 'last.pt')):
        command.append('--init_from=resume')

    # in a session of its own, or a Ctrl-C would reach it twice: from the terminal and from here
    env = os.environ | {PARENT: str(os.getpid())}
    child = subprocess.Popen(command, env=env, start_new_session=True)

    def forward(number, frame):
        child.send_signal(number)

    previous = {}
    for number in stop_signals():
        previous[number] = signal.signal(number, forward)
    try:
        return child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_signals():
    """
    The signals by which a training is asked to stop: Ctrl-C, kill, and the terminal that is closed,
    unless the training was started with nohup so as to outlive it. Windows has only the first two.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, 'SIGHUP') and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


def parent_has_ended():
    """
    Has the process ended that started this run as one of its seeds or folds? Killed, it could not
    say so, and this run would go on beside the next attempt.
    """
    # on Windows the parent of a venv's Python is a program that only starts it
    if os.name != 'posix' or PARENT not in os.environ:
        return False
    return os.environ[PARENT] != str(os.getppid())


def check_same_settings(run, settings, config, kind, changeable):
    """Raises ValueError if a finished run had other settings: its scores cannot be averaged."""
    different = []
    for name, value in settings.items():
        # seeds differ in `seed` and folds in `fold`; a single run has no `seeds`
        if name in changeable or name in (kind, 'seeds'):
            continue
        # evaluation.json hides the home folder, 'auto' was resolved, and a run that goes on has
        # the init_from it began with
        wanted = config.get(name)
        if hide_home(wanted) == value or wanted in (value, 'auto', 'resume'):
            continue
        different.append(name)
    if different:
        what = f'{run} was trained with other values of {", ".join(different)}'
        raise ValueError(f'{what}; choose another out_dir')


# -----------------------------------------------------------------------------
# means


def summarize(out_dir, evaluations):
    """
    The evaluations of several runs -> means and sample standard deviations of their scores.

    Together all folds predict every text of the training file once. Their confusion tables add up
    to one table, from which the out-of-fold scores are computed. If there are fewer runs than
    'folds', some texts are missing from it.
    """
    summary = {'run': out_dir, 'runs': len(evaluations), 'n': evaluations[0]['n']}
    for name in [*METRICS, 'nll', 'ece_calibrated']:
        # a run may have been evaluated before a metric was added
        if any(name not in evaluation for evaluation in evaluations):
            continue
        values = [evaluation[name] for evaluation in evaluations]
        summary[name] = float(np.mean(values))
        summary[f'{name}_sd'] = float(np.std(values, ddof=1))
        summary[f'{name}_each'] = values

    # on the validation split each fold has texts of its own choice, which may overlap
    runs = [evaluation['run'] for evaluation in evaluations]
    if are_folds(runs) and evaluations[0]['split'] == 'test':
        summary['folds'] = evaluations[0]['settings']['folds']
        summary |= out_of_fold_scores(evaluations)
    return summary


def out_of_fold_scores(evaluations):
    """The scores of the sum of the folds' confusion tables."""
    table = sum_tables(evaluations)
    n = int(table.sum())
    scores = {'n': n}
    for name, metric in METRICS.items():
        scores[f'out_of_fold_{name}'] = float(metric(table))
    scores['out_of_fold_accuracy_ci'] = share_ci(int(np.trace(table)), n)
    scores['out_of_fold_macro_f1_ci'] = macro_f1_ci(table)
    scores['confusion'] = table.tolist()
    scores['per_class'] = per_class(table, evaluations[0]['labels'])

    baselines = [evaluation['baseline'].get('bag_of_words') for evaluation in evaluations]
    if all(baselines):
        baseline_table = sum_tables(baselines)
        scores['out_of_fold_bag_of_words_macro_f1'] = float(macro_f1(baseline_table))
    return scores


def sum_tables(evaluations):
    tables = [evaluation['confusion'] for evaluation in evaluations]
    return np.sum(tables, axis=0)


def print_summary(summary):
    """Shows what `summarize` returns."""
    n_runs = summary['runs']
    scores = []
    for name in METRICS:
        if name in summary:
            mean = format_metric(name, summary[name])
            scores.append(f'{mean} +- {summary[f"{name}_sd"]:.3f}')
    print(f'\n{n_runs} runs, mean and standard deviation: {", ".join(scores)}')
    if 'out_of_fold_macro_f1' not in summary:
        return

    if n_runs == summary['folds']:
        what = f'{summary["n"]:,} rows once each'
    else:
        what = f'{summary["n"]:,} rows of {n_runs} of {summary["folds"]} folds'
    score = format_metric('macro_f1', summary['out_of_fold_macro_f1'])
    print(f'out of fold, {what}: {score} {summary["out_of_fold_macro_f1_ci"]}')
