"""
How good is a run, and how sure can one be of that? First what train.py and sample_classify.py share with this file, so that
what is judged, trained and used is the same code; then the judgement.
$ python evaluate.py --out_dir=out/sentiment_scratch                        # the test split; or --split=val, or train
$ python evaluate.py --out_dir=out/sentiment_scratch --input=labelled.csv   # any labelled .csv, .tsv or .jsonl
$ python evaluate.py --out_dir=out/A --against=out/B                        # is A better, or was it luck?
Writes predictions.csv, errors.csv and evaluation.json into the run's folder (predictions-val.csv, ... for other splits).
"""

import csv
import glob
import json
import math
import os
import platform
import signal
import subprocess
import sys

import numpy as np
import torch

from batches import predict
from configurator import configure, stop
from metrics import (
    TAGS,
    compare,
    ece,
    fitted,
    macro_f1,
    macro_f1_ci,
    metrics,
    per_class,
    show,
    show_summary,
    softmax,
    tags,
    wilson,
    write_whole,
)
from model import Config, Transformer
from prepare import CLEANING, Split, clean, find_raw, prepare, read_json, read_rows, truncate
from tokenizer import load_tokenizer

# -----------------------------------------------------------------------------
out_dir = 'out/sentiment_scratch'  # of train.py; or of its seeds, or else of its folds, which lie below: all of them
split = 'test'  # or 'val', 'train'
input = ''  # instead: a labelled .csv, .tsv or .jsonl
text_column = ''  # of input; '' is the training data's
label_column = ''
against = ''  # another run, judged on the same rows: are the two different?
batch_size = 64
device = 'auto'
dtype = 'auto'
# -----------------------------------------------------------------------------
# the machine; checkpoints, out and in


def choose_machine(device='auto', dtype='float32', trained=''):
    """Names -> device, torch dtype. 'auto': the best there is; bfloat16 only with instructions for it, float32 if so trained"""
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    if dtype == 'auto':
        cpu = torch.cpu.get_capabilities() if device == 'cpu' else {}
        cuda = device.startswith('cuda') and torch.cuda.is_bf16_supported(including_emulation=False)
        can = cuda or cpu.get('avx512_bf16') or cpu.get('amx_bf16')  # emulated, it crawls
        dtype = 'bfloat16' if can and trained != 'float32' else 'float32'
    if dtype not in ('float32', 'bfloat16', 'float16'):
        raise ValueError(f'dtype={dtype} is unknown; choose auto, float32, bfloat16 or float16')
    if device == 'cuda':
        device += f':{os.getenv("LOCAL_RANK", "0")}'  # one GPU to each process of torchrun
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device={device} cannot be used here: {str(error).splitlines()[0]}; try --device=cpu') from None
    return device, getattr(torch, dtype)


def save_run(path, checkpoint):
    """Whole or not at all: a temporary name, flushed to the disk, then renamed. Adds what made it: versions, git commit."""
    versions = {'python': platform.python_version(), 'torch': str(torch.__version__), 'numpy': np.__version__}
    here = os.path.dirname(os.path.abspath(__file__))  # a shell, since git may be absent
    git = subprocess.run('git rev-parse HEAD', shell=True, cwd=here, capture_output=True, text=True).stdout.strip()
    try:
        with open(path + '.tmp', 'wb') as f:
            torch.save(checkpoint | {'versions': versions, 'git': git}, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(path + '.tmp', path)
    except (OSError, RuntimeError) as e:  # torch.save has either, when a disk is full
        stop(f'{path} cannot be written ({e}) and is as it was; make room, or mend --out_dir; --init_from=resume goes on')


def open_run(path, device='cpu'):
    """A checkpoint (best.pt, or a folder that holds one) -> model in eval mode, tokenizer, checkpoint dict; or ValueError."""
    path = os.path.join(path, 'best.pt') if os.path.isdir(path) else path
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)  # tensors and plain values: loading runs no code
        model = Transformer(Config(**checkpoint['config']))
        model.load_state_dict(checkpoint['model'])
    except Exception as e:  # of pickle, zip, torch: whatever a file may hold
        why = f'{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ""}'
        raise ValueError(f'{path} cannot be opened ({why}); train again, or name another --out_dir') from None
    return model.to(device).eval(), load_tokenizer(checkpoint['tokenizer']), checkpoint


def resume_run(path, config, defaults, free):
    """
    Opens a checkpoint to go on from: config takes over its settings, but keeps what was set anew where that is free to
    change; what was typed is set anew, even to its default. ValueError where there is none, or config wants something else
    of what is not free.
    """
    if not os.path.exists(path):
        raise ValueError(f'there is no {path}; leave out --init_from=resume to train from the start')
    try:
        last = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as e:
        raise ValueError(f'{path} cannot be read ({type(e).__name__}); remove it and train again') from None
    if 'run' not in last or last['settings'].keys() != config.keys():
        raise ValueError(f'{path} is of another version of train.py, which has other settings; go on with that, or train again')
    typed = {arg.partition('=')[0].removeprefix('--') for arg in sys.argv[1:]}
    for key, ours in last['settings'].items():
        anew = key in typed or config[key] != defaults[key]
        fell_back = key == 'dataset' and ours == config['fallback_dataset']
        if key not in free and anew and config[key] not in (ours, 'auto') and not fell_back:
            raise ValueError(f'{path} has {key}={ours}, not {config[key]}; leave {key} out or choose another out_dir')
        if key == 'init_from' or key != 'out_dir' and not (key in free and anew):
            config[key] = ours
    return last


# -----------------------------------------------------------------------------
# a finished run


def labelled(path, recipe, columns, labels):
    """A labelled file in the manner of a run's recipe -> records, raw texts, label numbers; rows that lack one are left out."""
    columns = [own or old for own, old in zip(columns, recipe['columns'])]
    found = []
    for record, (_, row, reason) in enumerate(read_rows(path)):
        if not reason and not set(columns) <= row.keys() and not path.endswith('.jsonl'):  # whose rows may lack some
            raise ValueError(f'{path} has no column {columns}; set --text_column and --label_column to some of {list(row)}')
        text, label = (row.get(column, '').strip() for column in columns)
        found += [(record, text, recipe['names'].get(label, label))] * bool(text and label and not reason)
    if 0 < len(found) < record + 1:
        print(f'{path}: {record + 1 - len(found)} of {record + 1} rows cannot be used, and are left out', file=sys.stderr)
    records, texts, names = zip(*found) if found else ((), (), ())
    if not found or set(names) - set(labels):
        odd = ', '.join(sorted(set(names) - set(labels))[:5]) or 'no usable row'
        ours = f'{odd}; the labels of this run are {", ".join(labels)}'
        raise ValueError(f'{path}: {ours}; is --label_column={columns[1]} right?')
    return np.array(records), texts, np.array([labels.index(name) for name in names])


def safe(cell):
    """A text as a spreadsheet will show it, not run it."""
    return "'" + cell if cell[:1] in ('=', '+', '-', '@', '\t', '\r') else cell


def material(run, tokenizer, split, input, columns):
    """What a run is to be judged on: records, raw texts, label numbers, cut ids, uncut lengths; baseline, rows a split."""
    recipe, settings, block_size = run['recipe'], run['settings'], run['config']['block_size']
    if input:
        records, texts, y = labelled(input, recipe, columns, run['labels'])
        ids = tokenizer.encode_batch([clean(text, **{key: recipe[key] for key in CLEANING}) for text in texts])
        cut = (truncate(np.array(x), block_size, settings['keep'], tokenizer.n_prefix, tokenizer.n_suffix) for x in ids)
        return records, texts, y, list(cut), np.array([len(x) for x in ids]), {}, {}
    folder = prepare(settings)
    meta = read_json(folder, 'meta.json')
    if meta['recipe'] != recipe or split not in meta['rows']:
        raise ValueError(f'{folder} holds other data than the run was trained on, or no {split} split; name a file: --input=')
    ids = Split(folder, split, block_size, settings['keep'])
    paths, wanted = find_raw(settings['dataset'], settings['data_dir'], settings['test_file']), set(ids.rows.tolist())
    rows = enumerate(read_rows(paths[split if split in paths and not settings.get('fold') else 'train']))
    texts = [row[recipe['columns'][0]].strip() for record, (_, row, _) in rows if record in wanted]
    baseline = fitted(folder, {name: Split(folder, name) for name in meta['rows']}, tokenizer)
    return ids.rows, texts, ids.labels.astype(np.int64), ids, np.diff(ids.off), baseline, meta['rows']


def beside(path, split, input=''):
    """Where the judgement of a run, or of a .pt file, goes: the folder, and what names end in; '' for best.pt, test split."""
    folder, file = os.path.split(path) if path.endswith('.pt') else (path, 'best.pt')
    return folder, f'-{file[:-3]}' * (file != 'best.pt') + ('-input' if input else f'-{split}' * (split != 'test'))


def judge(out_dir, split='test', input='', columns=('', ''), batch_size=64, device='auto', dtype='auto'):
    """A run's best.pt on a split, or a labelled file -> what evaluation.json holds; writes it, and two tables of texts."""
    model, tokenizer, run = open_run(out_dir, choose_machine(device)[0])
    device, ptdtype = choose_machine(device, dtype, run['settings']['dtype'])
    records, texts, y, ids, lengths, baseline, sizes = material(run, tokenizer, split, input, columns)
    labels, block_size, temperature = run['labels'], model.config.block_size, run.get('temperature', 1.0)
    cleaning = {key: run['recipe'][key] for key in CLEANING}
    logits = predict(model, ids, batch_size, ptdtype)
    p = softmax(logits / temperature)
    guess, every = p.argmax(axis=1), np.arange(len(p))
    confidence, second, wrong = p[every, guess], np.sort(p, axis=1)[:, -2], guess != y
    known = set(baseline.get('words', ())) or None
    marks = [tags(clean(text, **cleaning), length > block_size, known) for text, length in zip(texts, lengths)]

    m = {'run': out_dir, 'split': split * (not input), 'input': input, 'device': device, 'dtype': str(ptdtype)}
    m |= metrics(logits, y, labels)
    m |= {'ece': ece(softmax(logits), y), 'ece_calibrated': ece(p, y), 'temperature': temperature, 'coverage': []}
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        sure = confidence >= threshold
        m['coverage'].append([threshold, float(sure.mean()), float((~wrong)[sure].mean()) if sure.any() else None])
    m['tags'] = {}
    for tag in TAGS:
        mine = wrong[[tag in found for found in marks]]
        n, errors = len(mine), int(mine.sum())
        m['tags'][tag] = dict(n=n, errors=errors, rate=errors / n if n else None, ci=[round(x, 4) for x in wilson(errors, n)])
    m['baseline'] = {name: baseline[name].get(split) for name in ('majority', 'bag_of_words') if baseline}
    m |= {key: run.get(key) for key in ('dataset', 'best', 'command', 'settings', 'versions', 'git')} | {'labels': labels}
    m |= {'tokenizer': tokenizer.name, 'n_params': model.num_params()} | {f'n_{name}': rows for name, rows in sizes.items()}
    folder, end = beside(out_dir, split, input)
    names = {name: os.path.join(folder, name + end) for name in ('predictions', 'errors', 'evaluation')}
    fields = 'row text label prediction confidence margin loss tokens truncated tags'.split() + [f'logit_{x}' for x in labels]
    for name, some in (('predictions', every), ('errors', every[wrong][np.argsort(-confidence[wrong], kind='stable')])):
        with open(names[name] + '.csv', 'w', newline='', encoding='utf-8') as f:
            out = csv.writer(f)
            out.writerow(fields)
            for i in some:
                numbers = (confidence[i], confidence[i] - second[i], -math.log(max(p[i, y[i]], 1e-300)))
                row = [records[i], safe(texts[i]), safe(labels[y[i]]), safe(labels[guess[i]]), *(f'{x:.5f}' for x in numbers)]
                out.writerow([*row, lengths[i], lengths[i] > block_size, ' '.join(marks[i]), *(f'{x:.5f}' for x in logits[i])])
    m['files'] = {name: path + ('.json' if name == 'evaluation' else '.csv') for name, path in names.items()}
    write_whole(m['files']['evaluation'], json.dumps(m, indent=1) + '\n')
    return m


def conclude(out_dir, **machine):
    """At the end of a training: judges its best.pt on the test split, and shows that."""
    try:
        show(m := judge(out_dir, **machine))
        return m
    except (ValueError, OSError) as e:
        stop(f'{e}; the training is done: mend this, then python train.py --out_dir={out_dir!r} --init_from=resume judges it')


def wandb_plots(wandb, m):
    """A judgement's confusion matrix and errors, as wandb's own plots."""
    pairs = [(i, j) for i, row in enumerate(m['confusion']) for j, n in enumerate(row) for _ in range(n)]
    truth, guess = (list(x) for x in zip(*pairs))
    with open(m['files']['errors'], newline='', encoding='utf-8') as f:
        columns, *rows = csv.reader(f)
    confusion = wandb.plot.confusion_matrix(y_true=truth, preds=guess, class_names=m['labels'])
    return {'confusion': confusion, 'errors': wandb.Table(columns=columns, data=rows[:1000])}


def read_predictions(out_dir, split, input):
    """Runs' predictions -> {(record, text): [its label, what each run that was asked says]}, by name."""
    found = {}
    for run in runs(out_dir):
        folder, end = beside(run, split, input)
        with open(os.path.join(folder, f'predictions{end}.csv'), newline='', encoding='utf-8') as f:
            for row in csv.DictReader(f):
                found.setdefault((row['row'], row['text']), [row['label']]).append(row['prediction'])
    return found


def runs(out_dir):
    """out_dir itself, or the runs below it that --seeds made, or else --folds: they were tested on other texts"""
    found = [glob.glob(os.path.join(glob.escape(out_dir), f'{kind}-*')) for kind in ('seed', 'fold')]
    seeds, folds = ([path for path in some if path.rpartition('-')[2].isdigit()] for some in found)
    return sorted(seeds or folds, key=lambda path: int(path.rpartition('-')[2])) or [out_dir]


def several(config, free):
    """What --seeds or --folds ask for: train.py once for each, one after the other, as far as it is not done; then leaves."""
    kind, n, each = 'fold' if config['folds'] else 'seed', config['folds'] or config['seeds'], []
    if 'RANK' in os.environ or n < 2 or config['seeds'] and config['folds']:
        meant = f'{kind}s={n} are two or more runs, one after the other, without torchrun'
        stop(f'{meant}; set --seed or --fold for a single one, and seeds or folds, not both')
    for k in range(1, n + 1):
        run = os.path.join(config['out_dir'], f'{kind}-{k}')
        args = [*sys.argv, f'--out_dir={run}', '--seeds=0', f'--{kind}={k}']
        done, last = (os.path.join(run, name) for name in ('summary.json', 'last.pt'))
        if os.path.exists(done) and os.path.exists(last) and os.path.getmtime(last) > os.path.getmtime(done):
            os.remove(done)  # of a run that has been begun anew since, and broke off
        if not os.path.exists(done):
            args += ['--init_from=resume'] * os.path.exists(last)
            print(f'{kind} {k} of {n}: {run}', flush=True)
            child = subprocess.Popen([sys.executable, *args], start_new_session=True)  # Ctrl-C reaches it once, from here
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, frame, child=child: child.send_signal(number))
            if child.wait() or not os.path.exists(done):
                raise SystemExit(child.returncode)  # it has said why
        if not os.path.exists(path := os.path.join(run, 'evaluation.json')):
            stop(f'{run} has no test split to be compared on; set test_fraction or test_file, and choose another out_dir')
        with open(path, encoding='utf-8') as f:
            each.append(json.load(f))
        theirs = {key: value for key, value in each[-1]['settings'].items() if key not in [*free, 'seed', 'seeds', 'fold']}
        other = [key for key, value in theirs.items() if config.get(key) not in (value, 'auto', 'resume')]
        if other and [theirs[key] for key in other] != [config['fallback_dataset']]:  # that one fell back, as we would
            stop(f'{run} was done with another {", ".join(other)}; choose another out_dir')
    show_summary(last := summary(config['out_dir'], each))
    print(json.dumps(last))
    raise SystemExit


def summary(out_dir, each):
    """The judgements of several runs -> means and sample standard deviations; of folds also all rows, each predicted once."""
    m = {'run': out_dir, 'runs': len(each), 'n': each[0]['n']}
    for name in ('accuracy', 'macro_f1', 'nll', 'ece_calibrated'):
        values = [x[name] for x in each]
        m |= {name: float(np.mean(values)), f'{name}_sd': float(np.std(values, ddof=1)), f'{name}_each': values}
    if os.path.basename(each[0]['run']).startswith('fold-') and each[0]['split'] == 'test':  # each row but once
        total = np.sum([x['confusion'] for x in each], axis=0)
        m |= {'n': int(total.sum()), 'out_of_fold_accuracy': float(np.trace(total) / total.sum())}
        m |= {'out_of_fold_accuracy_ci': [round(x, 4) for x in wilson(np.trace(total), total.sum())]}
        m |= {'out_of_fold_macro_f1': float(macro_f1(total)), 'out_of_fold_macro_f1_ci': macro_f1_ci(total)}
        m |= {'confusion': total.tolist(), 'per_class': per_class(total, each[0]['labels'])}
        bags = [x['baseline'].get('bag_of_words') for x in each]
        if all(bags):
            m['out_of_fold_bag_of_words_macro_f1'] = float(macro_f1(np.sum([x['confusion'] for x in bags], axis=0)))
    return m


if __name__ == '__main__':
    configure(globals())
    machine = dict(batch_size=batch_size, device=device, dtype=dtype)
    try:
        if not glob.glob(os.path.join(glob.escape(runs(out_dir)[0]), 'best.pt')) and not out_dir.endswith('.pt'):
            raise ValueError(f'there is no trained run {out_dir}; train it, or check --out_dir')
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size} is too small; give it a positive number')
        each = []
        for run in runs(out_dir):
            each.append(judge(run, split, input, (text_column, label_column), **machine))
            show(each[-1])
        last = each[0] if len(each) == 1 else summary(out_dir, each)
        if against:
            ours, theirs = (read_predictions(path, split, input) for path in (out_dir, against))
            rows = [row for row in ours if row in theirs and ours[row][0] == theirs[row][0]]
            asked = {(len(ours[row]), len(theirs[row])) for row in rows}
            if len(rows) < max(len(ours), len(theirs)) or len(asked) > 1:
                raise ValueError(f'{out_dir} and {against} were judged on other rows; judge {against} likewise first')
            names = sorted({name for found in (ours, theirs) for some in found.values() for name in some})
            a, b = (np.array([[names.index(x) for x in found[row]] for row in rows]) for found in (ours, theirs))
            last['against'] = {'run': against} | compare(a[:, 0], a[:, 1:], b[:, 1:], len(names))
    except (ValueError, OSError, KeyError, csv.Error) as e:
        stop(e if isinstance(e, ValueError) else f'{e}; check the files named, and judge both runs first')
    if len(each) > 1:
        show_summary(last)
    if against:
        for name in ('accuracy', 'macro_f1'):
            d = last['against'][name]
            print(f'{name} better than {against} by {d["difference"]:+.3f} [{d["ci"][0]:+.3f}, {d["ci"][1]:+.3f}]')
        if 'mcnemar_p' in last['against']:
            print('alone right {only_a_right} and {only_b_right} times, McNemar p = {mcnemar_p:.3f}'.format(**last['against']))
    print(json.dumps({key: value for key, value in last.items() if key not in ('settings', 'versions', 'git')}))
