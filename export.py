"""
Writes a trained run in a format that other programs read.

$ python export.py --out_dir=out/run --to=hf      # a folder for transformers: out/run/hf
$ python export.py --out_dir=out/run --to=onnx    # a graph for onnxruntime: out/run/onnx

What is written is opened again and compared with the run before it gets its name.
"""

import os
import sys

from configurator import configure, run_script
from nanosentiment.cleaning import STEPS
from nanosentiment.files import to_json
from nanosentiment.hf_card import steps_that_are_on
from nanosentiment.repeats import find_runs

# -----------------------------------------------------------------------------
# what
out_dir = 'out/sentiment_scratch'  # of train.py: a run, or a .pt file
to = 'hf'  # or 'onnx', for a model that no class of transformers computes, and to do without torch
output = ''  # the folder to write; '' is hf or onnx in out_dir
int8 = False  # of onnx: True rounds the weights to 8 bits, a quarter of the size
# -----------------------------------------------------------------------------

# what --help shows first
FIRST = ('out_dir', 'to', 'output')
CHOICES = {'to': ('hf', 'onnx')}


def check_settings():
    """ValueError for the first setting whose value cannot be meant."""
    if to not in CHOICES['to']:
        raise ValueError(f'to={to} is unknown; choose one of {", ".join(CHOICES["to"])}')
    if int8 and to != 'onnx':
        raise ValueError('int8 is of the onnx format; set --to=onnx, or leave it out')
    runs = find_runs(out_dir)
    if len(runs) > 1:
        what = f'{out_dir} holds {len(runs)} runs, and one is exported at a time'
        raise ValueError(f'{what}; name it, such as --out_dir={runs[0]}')


def output_folder():
    """
    The folder to write: as set, or beside the run's checkpoint.

    Examples: out/run/hf of out/run, and out/run/hf-last of out/run/last.pt
    """
    if output:
        return os.path.expanduser(output)
    folder = out_dir
    suffix = ''
    if folder.endswith('.pt'):
        folder, name = os.path.split(folder)
        if name != 'best.pt':
            suffix = f'-{name.removesuffix(".pt")}'
    return os.path.join(folder, to + suffix)


def warn_of_cleaning(classifier):
    """Says on stderr how a text must be cleaned before the exported model gets it."""
    if not steps_that_are_on(classifier):
        return
    recipe = classifier.checkpoint['recipe']
    settings = {step: recipe[step] for step in STEPS}
    print(
        'Its logits are those of cleaned texts. Before you give it a text: '
        f'from nanosentiment.cleaning import clean; text = clean(text, {settings})',
        file=sys.stderr,
    )


def export_run():
    """Writes what the settings ask for. Returns the dict for the last line."""
    check_settings()
    # torch comes with these imports: a mistyped setting should not wait for it
    from nanosentiment import to_hf, to_onnx
    from nanosentiment.checkpoint import Classifier

    # float32 on a CPU, whatever the run was trained in: that is what is written
    classifier = Classifier(out_dir, device='cpu', dtype='float32')
    folder = output_folder()
    if to == 'hf':
        result = to_hf.export(classifier, folder)
        paths = [os.path.join(folder, name) for name in result['files']]
    else:
        result = to_onnx.export(classifier, os.path.join(folder, 'model.onnx'), int8=int8)
        paths = [result['path']]
    for path in paths:
        print(path)
    warn_of_cleaning(classifier)
    return {'format': to, 'folder': folder, 'labels': classifier.labels} | result


def main():
    global out_dir
    configure(globals())
    out_dir = os.path.expanduser(out_dir)
    print(to_json(export_run()))


if __name__ == '__main__':
    run_script(main)
