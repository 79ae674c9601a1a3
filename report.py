"""
A run's files -> pictures, model card, a language model's opinion of its errors; results/ -> README's table. After evaluate.py.
$ python report.py --out_dir=out/sentiment_scratch  # curves, confusion, reliability, length and seeds .png; card.md
$ python report.py --out_dir=out/sentiment_scratch --llm=http://localhost:11434/v1 --llm_model=llama3.2
$ python report.py --readme=True
"""

import csv
import hashlib
import json
import os
import re
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

import numpy as np

from configurator import configure, stop

# -----------------------------------------------------------------------------
out_dir = 'out/sentiment_scratch'  # a run's folder, or the one above its seed-1, seed-2, ... or fold-1, ...
language = ''  # of the texts, for the card: en, tr, ...; '' makes no statement
readme = False  # fill in README.md's table, and nothing else
llm = ''  # an OpenAI-compatible address; its key, if it wants one, comes from the environment variable LLM_API_KEY
llm_model = ''  # as the endpoint calls it
llm_rows = 'errors'  # the most confident of errors.csv; 'all': the first of predictions.csv, where ours can be right, too
llm_n = 20  # answers are kept: more rows later ask only for what is new
llm_timeout = 60.0  # seconds without a word; a large model on a CPU may want more
llm_retries = 4  # after 429, 5xx or trouble on the line
llm_backoff = 1.0  # seconds before the first of them, doubled each time
# -----------------------------------------------------------------------------
BLUE, RED, GREY = '#0072B2', '#D55E00', '#666666'  # Okabe and Ito's: colour-blind safe, https://jfly.uni-koeln.de/color/
STYLE = {'font.size': 8, 'lines.markersize': 4, 'axes.spines.top': False, 'axes.spines.right': False, 'savefig.dpi': 300}


def read_lines(path):
    """A .jsonl -> its objects, [] where there is none; what follows the last line end was cut short by a kill."""
    return [json.loads(x) for x in path.read_text(encoding='utf-8').split('\n')[:-1] if x] if path.exists() else []


def read_rows(folder, name='predictions.csv'):
    """A table of evaluate.py -> its rows as dicts, the names of the labels (K,), logits (n, K)."""
    csv.field_size_limit(1 << 27)
    try:
        with open(folder / name, newline='', encoding='utf-8-sig', errors='replace') as f:
            reader = csv.DictReader(f)  # evaluate.py put a quote before what a spreadsheet would run as a formula
            rows = [{key: re.sub(r"^'(?=[=+\-@\t\r])", '', row[key]) for key in {'text', *row}} for row in reader]
        labels = [key[6:] for key in reader.fieldnames if key.startswith('logit_')]
        for row in rows:
            row['truth'], row['guess'] = labels.index(row['label']), labels.index(row['prediction'])
        return rows, labels, np.array([[float(row[f'logit_{x}']) for x in labels] for row in rows])
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as e:
        stop(f'{folder / name} cannot be read ({type(e).__name__}: {e.args[-1]}); run python evaluate.py --out_dir={folder}')


def wilson(hits, n, z=1.959964):
    """The 95 % interval of a share (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953), as in metrics.py."""
    p, z2, n = hits / (n or 1), z * z, n or 1e-9  # of nothing: 0 to 1
    middle, half = p + z2 / (2 * n), z * (p * (1 - p) / n + z2 / (4 * n * n)) ** 0.5
    return min(p, max(0.0, (middle - half) / (1 + z2 / n))), max(p, min(1.0, (middle + half) / (1 + z2 / n)))


def reliability_bins(confidence, hits, n_bins=15):
    """confidence, hits (n,) -> mean confidence, share right, size of bins of equal mass, (bins,) each; calibration error."""
    bins = np.array_split(np.argsort(confidence, kind='stable'), min(n_bins, len(confidence)))
    mean, right, n = np.array([(confidence[b].mean(), hits[b].mean(), len(b)) for b in bins]).T
    return mean, right, n, float((n * abs(mean - right)).sum() / n.sum())


def length_bins(tokens, hits, n_bins=8):
    """tokens, hits (n,) -> (shortest, longest, size, number right) of each bin between quantiles; none is empty."""
    edges = np.unique(np.quantile(tokens, np.linspace(0, 1, n_bins + 1)[1:], method='inverted_cdf'))  # the longest of each
    bins = [np.searchsorted(edges, tokens) == i for i in range(len(edges))]  # texts of one length stay together
    return [(int(tokens[b].min()), int(tokens[b].max()), int(b.sum()), int(hits[b].sum())) for b in bins]


def dots(ax, right, n, names):
    """Draws shares right / n with their intervals -> shares"""
    share, (low, high) = np.divide(right, n), np.transpose([wilson(*x) for x in zip(right, n)])
    ax.errorbar(range(len(n)), share, (share - low, high - share), fmt='o', color=BLUE, lw=1, label='with 95 % interval')
    ax.set(xticks=range(len(n)), xticklabels=names, xlim=(-0.6, len(n) - 0.4), ylabel='accuracy')
    return share


def draw(folder, runs, parent, about):
    """Four pictures of the run in folder, and in parent one of all runs; about is evaluation.json, or {} -> their paths."""
    try:
        from matplotlib import figure, style
    except ImportError:
        stop('the pictures want matplotlib, which is not installed: pip install matplotlib')
    rows, labels, logits = read_rows(folder)
    truth, guess, tokens = (np.array([int(row[key]) for row in rows]) for key in ('truth', 'guess', 'tokens'))
    hits, K, log = truth == guess, len(labels), read_lines(folder / 'metrics.jsonl')
    with style.context(['default', STYLE]):
        sizes = [(6.8, 2.7), (2.4 + 0.6 * min(K, 20), 1.6 + 0.5 * min(K, 20)), (3.6, 3.8), (5, 3), (5, 3)]
        paths = [folder / f'{name}.png' for name in ('curves', 'confusion', 'reliability', 'length')] + [parent / 'seeds.png']
        figures = curves, matrix, reliability, length, seeds = [figure.Figure(size, layout='constrained') for size in sizes]
        steps, evals = ([line for line in log if key in line] for key in ('loss', 'val_loss'))
        best = about.get('best') or min(evals, key=lambda line: line['val_loss'], default={'epoch': 0})
        what = ('nats per text; grey: a step', 'train_loss val_loss'), ('share of texts', 'val_accuracy val_macro_f1')
        for ax, (label, keys) in zip(curves.subplots(1, 2), what):
            for key, look, color in zip(keys.split(), ('s--', 'o-'), (RED, BLUE)):
                ax.plot([x['epoch'] for x in evals], [x[key] for x in evals], look, color=color, label=key.replace('_', ' '))
            ax.axvline(best['epoch'], color=GREY, ls=':', label=f'chosen: epoch {best["epoch"]:.4g}')
            ax.set(xlabel='epoch', ylabel=label)
            ax.legend()
        curves.axes[0].plot([x['epoch'] for x in steps], [x['loss'] for x in steps], color='#BBBBBB', lw=0.6, zorder=0)
        counts, ax = np.bincount(truth * K + guess, minlength=K * K).reshape(K, K), matrix.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        matrix.colorbar(ax.imshow(shares, cmap='Blues', vmin=0, vmax=1), label='share of the true label')
        for (i, j), x in np.ndenumerate(shares) if K <= 20 else ():  # white on dark; of more labels none could be read
            ax.text(j, i, f'{counts[i, j]:,}\n{x:.0%}', ha='center', va='center', size=min(8, 160 / K), color=str(int(x > 0.5)))
        ax.set_xticks(range(K), labels, rotation=40, ha='right', rotation_mode='anchor', parse_math=False)  # a label may hold $
        ax.set_yticks(range(K), labels, parse_math=False)
        ax.set(xlabel='predicted', ylabel='truth')
        ax, edges, temperature = reliability.subplots(), np.linspace(0, 1, 21), about.get('temperature', 1)
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=':', label='as often right as sure')
        for t, (name, look, color) in {temperature: ('calibrated', 'o-', BLUE), 1: ('as trained', 's--', RED)}.items():
            p = np.exp((logits - logits.max(axis=1, keepdims=True)) / t)
            confidence = p[np.arange(len(p)), guess] / p.sum(axis=1)
            mean, right, n, ece = reliability_bins(confidence, hits)
            ax.plot(mean, right, look if n[0] > 9 else look[0], color=color, label=f'{name}, ECE {ece:.3f}')  # few zigzag
            ax.stairs(np.histogram(confidence, edges)[0] / len(hits), edges, color=color, ls=look[1:], lw=0.8)
        ax.set(xlabel='confidence', ylabel='share right; steps: share of texts', xlim=(1 / K - 0.02, 1.01), ylim=(0, 1.03))
        low, high, n, right = zip(*length_bins(tokens, hits, min(8, 1 + len(rows) // 20)))
        dots(ax := length.subplots(), right, n, [f'{a}-{b}\nn {c}' for a, b, c in zip(low, high, n)])
        ax.axhline(hits.mean(), color=GREY, ls=':', label=f'all texts, {hits.mean():.3f}')
        ax.set_xlabel('length of the text (tokens), number of texts')
        right = [[row['truth'] == row['guess'] for row in read_rows(run)[0]] for run in runs]
        accuracy = dots(ax := seeds.subplots(), [*map(sum, right)], [*map(len, right)], [x.resolve().name for x in runs])
        if len(runs) > 1:
            ax.axhline(accuracy.mean(), color=BLUE, lw=0.8, label=f'mean {accuracy.mean():.3f}, sd {accuracy.std(ddof=1):.3f}')
        for (name, x), look in zip(about.get('baseline', {}).items(), ('--', ':')):
            if x:
                ax.axhline(x['accuracy'], color=GREY, ls=look, label=f'{name.replace("_", " ")}, {x["accuracy"]:.3f}')
        for fig in (reliability, length, seeds):
            fig.legend(loc='outside upper center', ncols=2)
        for path, fig in zip(paths, figures):
            fig.savefig(path)
    return paths


def share(x):
    """A share as .733, an interval as .521 to .833, nothing for None, anything else as it is"""
    if isinstance(x, (tuple, list)):
        return ' to '.join(map(share, x))
    return '' if x is None else f'{x:.3f}'.removeprefix('0') if isinstance(x, float) else str(x)


def table(*rows):
    """Markdown; the first row is the head"""
    return '\n'.join(f'| {" | ".join(map(share, row))} |' for row in (rows[0], ['---'] * len(rows[0]), *rows[1:]))


def card(e, errors, name):
    """evaluation.json, the rows of errors.csv -> a model card, its head as https://hf.co/docs/hub/model-cards wants it"""
    plain = {x: re.sub(r'([^\w\s]|_)', r'\\\1', ' '.join(x.split())) for x in e['labels']}  # in Markdown without its marks
    data, each = re.sub(r'[^\w.-]+', '-', e['dataset']), []
    test = {'task': {'type': 'text-classification'}, 'dataset': {'name': data, 'type': data, 'split': e['split']}}
    test['metrics'] = [{'type': 'accuracy', 'value': e['accuracy']}, {'type': 'f1', 'name': 'macro-F1', 'value': e['macro_f1']}]
    head = {'language': language, 'library_name': 'nanosentiment', 'pipeline_tag': 'text-classification', 'tags': ['nanogpt']}
    head |= {'datasets': [data], 'metrics': ['accuracy', 'f1'], 'model-index': [{'name': name, 'results': [test]}]}
    head = ''.join(f'{key}: {json.dumps(x, ensure_ascii=False)}\n' for key, x in head.items() if x)  # JSON is YAML
    models = {'this model': e} | {key.replace('_', ' '): x for key, x in e['baseline'].items() if x}
    limits = [f'texts unlike {data}, or in another language: it learned from {e["n_train"]:,} of these, no others were tried']
    limits += [f'long texts: of more than {e["settings"]["block_size"]} tokens it reads a part ({e["settings"]["keep"]})']
    limits += [f'choosing between models less than {np.ptp(e["accuracy_ci"]):.1%} apart: {e["n"]:,} texts decide no finer']
    limits += [f'deciding about people with nobody looking: {1 - e["accuracy"]:.1%} of its answers on {e["split"]} were wrong']
    limits += [f'what the {key} does as well' for key, x in models.items() if x is not e and x['macro_f1'] >= e['macro_f1']]
    for label, row, column in zip(e['labels'], e['confusion'], np.transpose(e['confusion']).tolist()):
        c, hits, n = e['per_class'][label], row[len(each)], sum(row)
        each += [(plain[label], c['precision'], wilson(hits, sum(column)), c['recall'], wilson(hits, n), c['f1'], n)]
        limits += [f'finding {plain[label]} for certain: {n} texts only say that recall is {share(wilson(hits, n))}'] * (n < 30)
    scores = [[key, *map(x.get, ('accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci'))] for key, x in models.items()]
    out = [f'---\n{head}---', f'# {name}', f'{e["n_params"]:,} parameters; labels: {", ".join(plain.values())}.']
    out += [f'Trained on {e["n_train"]:,} texts of {data}; {e["n_val"]:,} others chose epoch {e["best"]["epoch"]:.4g}.']
    out += [f'## On {e["split"]}, {e["n"]:,} texts', table(('', 'accuracy', '95 %', 'macro-F1', '95 %'), *scores)]
    out += [table(('label', 'precision', '95 %', 'recall', '95 %', 'F1', 'texts'), *each), '## How sure']
    nll, before, after, temperature = (share(e[key]) for key in ('nll', 'ece', 'ece_calibrated', 'temperature'))
    out += [f'NLL {nll} nats, ECE {before}; with logits divided by {temperature} ECE {after}.']
    out += [table(('confidence at least', 'answered', 'accuracy of these'), *e['coverage']), '## Sure and wrong']
    for x in {row['label']: row for row in errors[::-1]}.values():  # of each label the most confident
        out += [f'{plain[x["label"]]}, taken for {plain[x["prediction"]]} at {share(float(x["confidence"]))}, row {x["row"]}:']
        out += ['    ' + ' '.join(x['text'].split())[:300]]  # indented: shown as it is, whatever it holds
    out += ['## Not for', '\n'.join(f'- {x}' for x in limits), '## Made by', f'    {e["command"]}', f'    {e["settings"]}']
    return '\n\n'.join([*out, ', '.join(f'{key} {x}' for key, x in (e['versions'] | {'commit': e['git']}).items())]) + '\n'


def named(answer, labels):
    """The one label that an answer names, as a whole word in any case, longest first; '' for none, and for several."""
    words = '|'.join(map(re.escape, sorted(labels, key=len, reverse=True)))
    said = re.findall(rf'(?i)(?<!\w)(?:{words})(?!\w)', re.sub('(?s).*</think>', '', answer))  # not: thought aloud
    found = [label for label in labels if label.casefold() in map(str.casefold, said)]
    return found[0] if len(found) == 1 else ''


def ask(url, prompt, key):
    """What the model at url says to a prompt. Asks again where that may help; else stops, without a word of the key."""
    body = {'model': llm_model, 'messages': [{'role': 'user', 'content': prompt}], 'temperature': 0}
    request = urllib.request.Request(url, json.dumps(body).encode(), {'Content-Type': 'application/json'})
    request.unredirected_hdrs = {'Authorization': f'Bearer {key}'} if key else {}  # no other host must see the key
    for attempt in range(max(llm_retries, 0) + 1):
        try:
            with urllib.request.urlopen(request, timeout=llm_timeout) as response:
                said = str(json.loads(response.read())['choices'][0]['message']['content'] or '')
            return said.replace(key, '***') if len(key) > 7 else said  # a shorter one is no secret, but may be a label
        except (ValueError, LookupError, TypeError):
            stop(f'{url} answers something else than the JSON of a chat completion; check --llm')
        except (OSError, HTTPException) as e:
            code, after = getattr(e, 'code', 0), str(getattr(e, 'headers', {}).get('Retry-After'))
            trouble = f'HTTP {code}' if code else f'no answer ({type(e).__name__})'
        if attempt >= llm_retries or 300 <= code < 500 and code not in (408, 429):
            stop(f'{url}: {trouble}; check --llm, --llm_model and LLM_API_KEY, then go on: answers so far are kept')
        wait = max(llm_backoff * 2**attempt, int(after) if re.fullmatch('[0-9]{1,4}', after) else 0)
        print(f'{url}: {trouble}, again in {wait:g} s', file=sys.stderr)
        time.sleep(wait)


def compare(folder):
    """Asks about texts of the run in folder -> the path of errors_llm.csv, counts; llm_cache.jsonl keeps the answers."""
    key, url = os.getenv('LLM_API_KEY', '').strip(), llm.rstrip('/') + '/chat/completions'
    if not re.match('https?://[!-~]+$', url) or not llm_model or re.search('[^!-~]', key) or llm_rows not in ('errors', 'all'):
        stop('give --llm=http://..., --llm_model=...; --llm_rows is errors or all; LLM_API_KEY is of printable characters')
    rows, labels, _ = read_rows(folder, 'errors.csv' if llm_rows == 'errors' else 'predictions.csv')
    rows, cache, path = rows[: max(llm_n, 0)], folder / 'llm_cache.jsonl', folder / 'errors_llm.csv'
    known = dict(read_lines(cache))  # digest -> answer
    counts = dict.fromkeys(('both_wrong', 'only_ours_right', 'only_llm_right', 'both_right', 'unparsed'), 0)
    for i, row in enumerate(rows, 1):
        prompt = f'Answer with one of these labels and nothing else: {", ".join(labels)}.\n\nText to classify:\n{row["text"]}'
        digest = hashlib.sha256(f'{url}\n{llm_model}\n{prompt}'.encode()).hexdigest()
        if digest not in known:
            known[digest] = ask(url, prompt, key)
            (part := cache.with_suffix('.part')).write_text(''.join(json.dumps(x) + '\n' for x in known.items()))
            part.replace(cache)  # whole or not at all
            print(f'{i} of {len(rows)} texts', file=sys.stderr)
        row |= {'answer': known[digest], 'llm': named(known[digest], labels)}
        right = (row['prediction'] == row['label']) + 2 * (row['llm'] == row['label'])
        counts[list(counts)[right] if row['llm'] else 'unparsed'] += 1
    columns = 'row text label prediction confidence llm answer'.split()
    with open(path, 'w', newline='', encoding='utf-8') as f:  # a quote goes before what a spreadsheet would run as a formula
        csv.writer(f).writerows([columns, *([re.sub(r'^(?=[=+\-@\t\r])', "'", str(row[x])) for x in columns] for row in rows)])
    return [path], {'llm': counts}


def results_table(results_dir, config_dir):
    """The lines of results/*.jsonl, a row for each data set and config or baseline, and config/*.py without any -> Markdown"""
    texts = {path.stem: path.read_text(encoding='utf-8') for path in sorted(Path(config_dir).glob('*.py'))}
    configs = {name: dict(re.findall(r"^(dataset|out_dir) = '(.*?)'", text, re.M)) for name, text in texts.items()}
    found = {(c.get('dataset', ''), True, name): [] for name, c in configs.items()}
    for path in sorted(Path(results_dir).glob('*.jsonl')):
        for x in read_lines(path):  # the config has the file's name, or is in the command, or has this out_dir
            names = [c for c in configs if c == path.stem or f'config/{c}.py' in x.get('command', '')]
            names += [c for c in configs if f'{x.get("run")}/'.startswith(f'{configs[c].get("out_dir")}/')] + [path.stem]
            found.setdefault((x['dataset'], 'model' not in x, x.get('model', names[0])), []).append({'test': x} | x)
    rows = ['data|model|test rows|each seed|accuracy ± sd, 95 %|macro-F1|lowest recall|5-fold macro-F1|minutes'.split('|')]
    for (data, ours, name), lines in sorted(found.items()):
        folds = [share(x['folds_macro_f1']) for x in lines if x.get('folds_macro_f1')]
        folds += ['{} ± {}, {}'.format(*(share(x[f'macro_f1{y}']) for y in ('', '_sd', '_ci'))) for x in lines if 'folds' in x]
        seeds = [x for x in lines if x['test'] and 'folds' not in x and not x.get('fold')]
        seeds = list({x.get('seed', f'line {i}'): x for i, x in enumerate(seeds)}.values())  # of one seed the newest
        accuracy, f1, recall = ([x['test'][key] for x in seeds] for key in ('accuracy', 'macro_f1', 'recall'))
        cells = ['', 'not yet measured', '', '', '']
        if seeds:
            label, lowest = min(((x, np.mean([r[x] for r in recall])) for x in recall[0]), key=lambda x: x[1])
            mean = share(np.mean(accuracy)) + (f' ± {share(np.std(accuracy, ddof=1))}' if len(seeds) > 1 else '')
            mean += f', {share(wilson(np.mean(accuracy) * (n := seeds[0]["n_test"]), n))}'  # for so many rows
            cells = [n, ' '.join(map(share, accuracy)), mean, np.mean(f1), f'{label} {share(lowest)}']
        minutes = [x['seconds'] / 60 for x in seeds if 'seconds' in x]
        name = f'`python train.py config/{name}.py`' if ours else name
        rows += [[data, name, *cells, (folds or [''])[-1], f'{np.mean(minutes):.1f}' if minutes else '']]
    return table(*rows)


if __name__ == '__main__':
    configure(globals())
    parent, here, result = Path(out_dir), Path(__file__).resolve().parent, {}
    found = [[x for x in parent.glob(f'{kind}-*/predictions.csv') if x.parent.name[5:].isdigit()] for kind in ('seed', 'fold')]
    runs = sorted((path.parent for path in found[0] or found[1]), key=lambda path: (len(path.name), path)) or [parent]  # 2 < 10
    folder = parent if (parent / 'predictions.csv').exists() else runs[0]
    if readme:
        parts = re.split('(<!-- /?results -->)', (here / 'README.md').read_text(encoding='utf-8'))
        if parts[1::2] != ['<!-- results -->', '<!-- /results -->']:
            stop('README.md wants a line <!-- results --> and a line <!-- /results -->, once each; add them around the table')
        parts[2] = f'\n{results_table(here / "results", here / "config")}\n'
        (here / 'README.md').write_text(''.join(parts), encoding='utf-8')
        files = [here / 'README.md']
    elif llm:
        files, result = compare(folder)
    else:
        about = json.loads(path.read_text(encoding='utf-8')) if (path := folder / 'evaluation.json').exists() else {}
        files = [*draw(folder, runs, parent, about), folder / 'card.md']
        if not about:
            stop(f'the card wants {path}; run python evaluate.py --out_dir={folder} first')
        name = '-'.join(folder.resolve().parts[-1 - (folder != parent) :])
        files[-1].write_text(card(about, read_rows(folder, 'errors.csv')[0], name), encoding='utf-8')
    print(*[f'about {folder}:'] * (not readme), *files, sep='\n')
    print(json.dumps({'files': list(map(str, files))} | result))
