"""
Evaluates a trained run, or all its seeds or folds, on the texts of a split or of a labelled file.

$ python evaluate.py --out_dir=out/sentiment_scratch
$ python evaluate.py --out_dir=out/sentiment_scratch --split=val
$ python evaluate.py --out_dir=out/sentiment_scratch --input=labelled.csv
$ python evaluate.py --out_dir=out/A --against=out/B     # is A better than B, or was it luck?
$ python evaluate.py --out_dir=out/A --dataset=new/place/mine.csv     # its data has moved
$ python evaluate.py --out_dir=out/A_folds --suspects=True   # which labels of the data are wrong?

Writes predictions.csv, errors.csv, explanations.jsonl and evaluation.json into the folder of each
run. Their names say if it was not best.pt or not the test split, as in predictions-val.csv and
predictions-last.csv.
"""

import os

import prepare
from configurator import configure, run_script
from nanosentiment.checkpoint import Classifier, carried_tokenizer
from nanosentiment.evaluation import (
    compare_runs,
    evaluate,
    file_examples,
    predictions_by_text,
    print_comparison,
    print_evaluation,
    split_examples,
)
from nanosentiment.files import to_json
from nanosentiment.repeats import find_runs, print_summary, summarize
from nanosentiment.suspects import print_suspects, write_suspects
from nanosentiment.tables import Table

# -----------------------------------------------------------------------------
# what
# a run, its seeds or folds, a .pt file, or the folder of a Hugging Face classifier
out_dir = 'out/sentiment_scratch'
split = 'test'  # or 'val', 'train'
input = ''  # instead of a split: a labelled table, such as a .csv, .tsv or .jsonl
against = ''  # another run, or its seeds or folds, already evaluated on the same rows
windows = False  # True: all of a text longer than block_size, as the mean of several windows
explain = 50  # number of errors, the most confident ones, whose words are explained for report.html
suspects = False  # True: the rows of folds whose label is probably wrong, and nothing else
# input
text_column = ''  # '' is the training data's
text_pair_column = ''  # likewise, of a run that was trained with pairs of texts
label_column = ''  # likewise
label_names = ''  # other names for the input's labels, e.g. '0=negative,1=positive'
delimiter = ''  # '' finds it out, and so with the next two
encoding = ''
header = 'auto'  # or True, or False: columns then go by their number, from 0
# moved data; a file is the same if its content is
dataset = ''  # its new path; '' is where it was in training, and so with the others
test_file = ''
val_file = ''
data_dir = ''
# system
batch_size = 64
device = 'auto'
dtype = 'auto'  # float32, bfloat16 or float16; auto: float32 if the run was trained so
# -----------------------------------------------------------------------------


def find_settings(classifier):
    """
    The settings that the run was trained with, and the new paths of what has moved.

    Raises ValueError if the run is too old for its data to be prepared again, or if a file is
    missing.
    """
    run = classifier.path
    if 'raw' not in classifier.checkpoint['recipe']:
        what = f'{run} is no run of this project, so that it has no {split} split'
        raise ValueError(f'{what}; name a labelled file: --input=')
    if 'label_names' not in classifier.checkpoint['recipe']:
        what = f'{run} is of an older version, which prepared its data in another way'
        raise ValueError(f'{what}; train again, or name a labelled file: --input=')

    settings = dict(classifier.checkpoint['settings'])
    new_paths = {
        'dataset': dataset,
        'test_file': test_file,
        'val_file': val_file,
        'data_dir': data_dir,
    }
    for name, path in new_paths.items():
        if path:
            settings[name] = path
    for name in ('dataset', 'test_file', 'val_file'):
        path = settings[name]
        if is_path(path) and not os.path.exists(os.path.expanduser(path)):
            what = f'there is no {path} any more, which is the {name} of {run}'
            raise ValueError(f'{what}; name its new place: --{name}=<path>')
    return settings


def is_path(value):
    """'mine.csv' and 'models/minilm' are paths; 'sst2', 'gpt2' and '' are not."""
    return '.' in value or os.path.dirname(value) != ''


def evaluate_run(run):
    """Evaluates one run as the settings say, shows the scores and returns them."""
    classifier = Classifier(run, device, dtype, windows)
    if input:
        table = Table(input, delimiter, encoding, header)
        examples = file_examples(
            classifier, table, text_column, label_column, text_pair_column, label_names
        )
    else:
        # its settings name the prepared folder, which is prepared again if it is gone
        settings = find_settings(classifier)
        folder = prepare.prepare(settings, carried_tokenizer(classifier.checkpoint))
        examples = split_examples(classifier, folder, split, settings)
    evaluation = evaluate(classifier, examples, run, split, input, batch_size, explain)
    print_evaluation(evaluation)
    return evaluation


def evaluate_all():
    """
    Evaluates the run, or each of its seeds or folds, and compares them with `against`.

    Returns the scores, of several runs the summary. Raises ValueError for the user's mistakes.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size} is too small; give it a positive number')
    if explain < 0:
        raise ValueError(f'explain={explain} is out of range; set it to 0 or more errors')
    if suspects and (against or input or split != 'test'):
        what = 'suspects=True looks at the folds as they were evaluated'
        raise ValueError(f'{what}; leave out --against, --input and --split')
    if suspects:
        result = write_suspects(out_dir)
        print_suspects(result)
        return result
    if against:
        # if it was not evaluated, that should be said now and not after minutes
        predictions_by_text(find_runs(against), split, input, windows)

    runs = find_runs(out_dir)
    evaluations = [evaluate_run(run) for run in runs]
    result = evaluations[0]
    if len(runs) > 1:
        result = summarize(out_dir, evaluations)
        print_summary(result)
    if against:
        result['against'] = compare_runs(out_dir, against, split, input, windows)
        print_comparison(result['against'])
    return result


def main():
    configure(globals())
    result = evaluate_all()

    # how a run was made stands in its evaluation.json, and texts would make the last line very long
    for key in ('settings', 'versions', 'git', 'checksums', 'first'):
        result.pop(key, None)
    print(to_json(result))


if __name__ == '__main__':
    run_script(main)
