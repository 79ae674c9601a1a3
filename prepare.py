"""
From a raw file to what get_batch reads: rows -> clean text -> split -> tokens -> memmaps, and a report on the data.
train.py calls this by itself; alone it is for looking at data before training on it.
$ python prepare.py --dataset=mine.csv --text_column=body --label_column=mood --tokenizer=gpt2

Writes data/<dataset>/<tokenizer>-<8 hex digits of the recipe>/: per split .tok uint16 (all texts end to end, uncut),
.off int64 (n + 1 offsets), .lab uint16 and .row int64 (record of the raw file, from 0); meta.json, tokenizer_state.json,
report.json and rejected.csv. Rows are streamed: memory holds a few numbers of each, never all texts.
"""

import csv
import hashlib
import html
import itertools
import json
import os
import re
import sys
import tempfile
from array import array
from collections import Counter, defaultdict

import numpy as np

from configurator import configure, stop
from tokenizer import get_tokenizer

# -----------------------------------------------------------------------------
# data
dataset = 'customer_service'  # a row of DATASETS below, or the path of your own .csv, .tsv or .jsonl
text_column = ''  # '' is the dataset's own
label_column = ''
test_file = ''  # a file of the same columns; '' is the dataset's own
data_dir = ''  # prepared data goes here; '' is data/ beside this file
strict = False  # True: a row that cannot be used is an error; False: it goes to rejected.csv
# text
tokenizer = 'bpe2048'  # bpe<N> learns N tokens from the training split; gpt2; or a folder with a tokenizer.json
lowercase = True
strip_brackets = True  # ( ) [ ] { } go, what they hold stays
strip_html = True  # tags and entities
speakers = 'all'  # of a dialogue with "Name:" at line starts: 'all' turns with their names, or e.g. 'customer' alone
# split
val_fraction = 0.1  # of each label, carved out of the training file
test_fraction = 0.1  # likewise, where there is no test file
split_seed = 0
# report
block_size = 256  # only to say what share of the texts it would cut
# -----------------------------------------------------------------------------

HERE = os.path.dirname(os.path.abspath(__file__))
CLEANING = ('lowercase', 'strip_brackets', 'strip_html', 'speakers')
SPLIT = ('val_fraction', 'test_fraction', 'split_seed')
RECIPE = ('dataset', 'text_column', 'label_column', 'test_file', 'data_dir', 'strict', 'tokenizer', *CLEANING, *SPLIT)
SPLITS = ('train', 'val', 'test')
KINDS = {'tok': np.uint16, 'off': np.int64, 'lab': np.uint16, 'row': np.int64}  # the files of a split

# text and label column; the file of each split, and md5 or sha256 of what its URL gives ({}: the file, #: a member of a zip)
DI725 = 'https://raw.githubusercontent.com/caglarmert/DI725/4b066861287213ff0f1d44806c1b7ad63569d0e8/assignment_1/data/'
DIALOGUE = ('conversation', 'customer_sentiment')
DATASETS = {
    'customer_service': {
        'columns': DIALOGUE,
        'train': ('train.csv', '17d90d76fb3ddd6bbdc816db48c1d9c68a51444618ca91916c8ffeadfe78947e'),
        'test': ('test.csv', 'b236188691c0c2e1fbba247eb554dde65c7b1bd2a70ef1ef3abf0e253eda407c'),
        'url': DI725 + 'customer_service/{}',
    },
    'demo': {'columns': DIALOGUE, 'train': ('train.csv', ''), 'test': ('test.csv', ''), 'url': ''},  # bundled, synthetic
    'sst2': {  # GLUE keeps the labels of its test rows to itself: dev is our test, validation is carved out of train
        'columns': ('sentence', 'label'),
        'names': {'0': 'negative', '1': 'positive'},
        'train': ('train.tsv', '9f81648d4199384278b86e315dac217c'),
        'test': ('dev.tsv', '9f81648d4199384278b86e315dac217c'),
        'url': 'https://dl.fbaipublicfiles.com/glue/data/SST-2.zip#SST-2/{}',
    },
}

# -----------------------------------------------------------------------------
# cleaning: pure str -> str

TAG = re.compile(r'<[a-zA-Z/!][^<>]*>')
SPEAKER = re.compile(r"^[^\S\n]*([^\W\d_][\w&'./ -]{0,39})(?:\([^()\n]{1,40}\))?[^\S\n]*:(?!//|(?<=\d:)\d)", re.MULTILINE)


def without_html(text):
    """'a &amp; <b>b</b>' -> 'a &  b '; entities first, because scraped text escapes its tags."""
    return TAG.sub(' ', html.unescape(text))


def without_brackets(text):
    """'fine (I guess) [laughs]' -> 'fine I guess laughs'"""
    return re.sub(r'[()\[\]{}]', '', text)


def only_speakers(text, names):
    """
    The turns of the named speakers. A turn lasts until the next "Name:" of anybody, so a Supervisor is never taken for the
    customer; a text in which nobody is named is no dialogue and stays as it is.
    Example: 'Agent: Hi.\\n\\nCustomer: It broke.\\nTwice.\\n\\nSupervisor: Oh.', 'customer' -> ' It broke.\\nTwice.\\n\\n'
    """
    before, *rest = SPEAKER.split(text)  # before, name, turn, name, turn, ...
    names = {name.strip().lower() for name in names.split(',')}
    return ''.join(turn for name, turn in zip(rest[::2], rest[1::2]) if name.strip().lower() in names) if rest else before


def scrub(text, lowercase, strip_brackets, strip_html, speakers):
    """The steps in their order; '' where nothing is left. White space: one blank, or one line end."""
    text = without_html(text) if strip_html else text
    text = '\n'.join(text.splitlines())  # any kind of line end
    text = only_speakers(text, speakers) if speakers != 'all' else text
    text = without_brackets(text) if strip_brackets else text
    text = text.lower() if lowercase else text
    return '\n'.join(filter(None, (' '.join(line.split()) for line in text.split('\n'))))


def clean(text, **cleaning):
    """What the model is shown of a raw text, in training and in use. What the steps would empty is shown as it was."""
    return scrub(text, **cleaning) or text.strip()


# -----------------------------------------------------------------------------
# raw files


def find_raw(dataset, data_dir):
    """A known dataset -> {split: path}: in data_dir, beside this file, in $NANOSENTIMENT_RAW, or downloaded into data_dir."""
    roots = filter(None, (data_dir, os.path.join(HERE, 'data'), os.getenv('NANOSENTIMENT_RAW')))
    folders, paths = [os.path.join(root, dataset) for root in roots], {}
    for split in ('train', 'test'):
        name, digest = DATASETS[dataset][split]
        places = [os.path.join(folder, name) for folder in folders]
        paths[split] = next(filter(os.path.exists, places), places[0])
        if not os.path.exists(paths[split]):
            from pretrained import fetch

            way_out = f'put {name} into {folders[0]}, or let NANOSENTIMENT_RAW name a folder that holds {dataset}/{name}'
            fetch(DATASETS[dataset]['url'].format(name), places[0], digest, way_out)
    return paths


def read_rows(path):
    """
    A .csv, .tsv (never quoted, as in GLUE) or .jsonl -> yields (line number, {column: str}, reason): the reason says why this
    row cannot be used, '' that it can. One broken row costs itself only.
    """
    kind, columns, delimiter, number, n_line = os.path.splitext(path)[1].lower(), [], '', 0, 1
    csv.field_size_limit(1 << 22)  # characters; a longer one is an open quote
    with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='\n') as f:
        for line in iter(f.readline, ''):
            number, n_line, reason, fields = number + n_line, 1, '', []
            delimiter = delimiter or ('\t' if kind == '.tsv' else max(',;', key=line.count))
            if not line.strip('\r\n'):
                continue  # an empty line is no row
            elif kind == '.jsonl':
                try:
                    row = json.loads(line)
                    columns = columns or list(row.keys())
                    fields = ['' if row.get(column) is None else str(row[column]) for column in columns]
                except (ValueError, AttributeError, RecursionError):
                    reason = 'not a JSON object'
            elif delimiter == '\t' or '"' not in line:  # most lines, and much faster
                fields = line.rstrip('\r\n').split(delimiter)
            else:
                after, lines = f.tell(), itertools.chain([line], iter(f.readline, ''))
                try:
                    reader = csv.reader(lines, delimiter=delimiter, strict=True)
                    fields, n_line = next(reader), reader.line_num
                except csv.Error as e:
                    reason = f'broken quoting: {e}'
                    f.seek(after)  # an open quote may have swallowed good rows
            if not columns and kind != '.jsonl':
                columns = [field.strip() for field in fields]
                continue
            if not reason and len(fields) != len(columns):
                reason = f'{len(fields)} fields, the header has {len(columns)}'
            elif found := re.search('[\0\ud800-\udfff]', ''.join((*columns, *fields))):  # not UTF-8: read as a surrogate
                reason = 'NUL byte' if found[0] == '\0' else 'not UTF-8'
            yield number, dict(zip(columns, fields)), reason


# -----------------------------------------------------------------------------
# the steps of preparation


def scan(temp, folder, paths, recipe):
    """
    Raw files -> temp/rows, a line of JSON for each usable row (clean text, record in its file), and folder/rejected.csv.
    Returns labels {name: id}; of each row its label and 64 bits that equal texts share; {column: Counter of (value, label)}
    of the training file; and how many rows are train, test, emptied by cleaning, rejected.
    """
    labels, y, keys, columns, count = {}, array('i'), array('q'), defaultdict(Counter), Counter()
    with open(f'{temp}/rows', 'w') as rows, open(f'{folder}/rejected.csv', 'w', newline='', encoding='utf-8') as f:
        rejected = csv.writer(f)
        rejected.writerow(('file', 'line', 'reason'))
        for split, path in paths.items():
            for record, (line, row, reason) in enumerate(read_rows(path)):
                for column, setting in zip(recipe['columns'], ('text_column', 'label_column')):
                    if not reason and column not in row:
                        raise ValueError(f'{path}: there is no column {column!r}; set --{setting} to one of {", ".join(row)}')
                raw, label = (row.get(column, '').strip() for column in recipe['columns'])
                label = recipe['names'].get(label, label)
                reason = reason or ('no text' if not raw else 'no label' if not label else '')
                if not reason and split == 'test' and label not in labels:
                    reason = f'label {label[:40]!r} is unknown to the training file'
                if reason:
                    count['rejected'] += 1
                    rejected.writerow((path, line, reason))
                    continue
                text = scrub(raw, **{key: recipe[key] for key in CLEANING})
                count.update((split,) if text else (split, 'emptied'))
                rows.write(json.dumps((text or raw, record)) + '\n')
                y.append(labels.setdefault(label, len(labels)))
                keys.frombytes(hashlib.blake2b((text or raw).encode(), digest_size=8).digest())
                for column, value in row.items() if split == 'train' else ():
                    if not value or len(columns[column]) < 1000:  # so many are no categories
                        columns[column][value and hash(value), label] += 1
    return labels, np.array(y), np.array(keys), columns, count


def assign(keys, labels, val_fraction, test_fraction, seed):
    """
    keys (n,) and labels (n,) -> part (n,): 0 train, 1 val, 2 test; how many rows repeat an earlier text; how many texts stand
    under several labels. The seed draws from each label's texts; equal texts stay together, under the label of the first. A
    label of two texts has one in train and one in val.
    """
    order = np.argsort(keys, kind='stable')  # equal texts side by side
    starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
    first, copies = order[starts], np.diff(starts, append=len(keys))  # (n_text,)
    size = np.bincount(labels[first])  # (n_label,) texts
    n_val = np.clip(np.rint(size * val_fraction), val_fraction > 0, np.maximum(size - 1, 0))
    n_test = np.clip(np.rint(size * test_fraction), test_fraction > 0, np.maximum(size - 1 - n_val, 0))
    sizes = np.stack((n_val, n_test, size - n_val - n_test), axis=1).astype(int)
    draw = np.random.default_rng(seed).random(len(keys))[first]  # by the row: other cleaning, same validation rows
    of_text, part = np.empty(len(first), dtype=np.uint8), np.empty(len(keys), dtype=np.uint8)
    of_text[np.lexsort((draw, labels[first]))] = np.repeat(np.tile((1, 2, 0), len(size)), sizes.ravel())  # label by label
    part[order] = np.repeat(of_text, copies)
    conflicts = np.repeat(starts, copies)[labels[order] != np.repeat(labels[first], copies)]
    return part, len(keys) - len(first), len(np.unique(conflicts))


def write_splits(temp, folder, labels, part, tokenizer):
    """temp/rows, their labels (n,) and parts (n,) -> the files of the splits; returns {split: number of tokens}."""
    tokens, start = {}, 0
    with open(f'{temp}/rows') as rows:
        while batch := list(itertools.islice(map(json.loads, rows), 1024)):
            ids, here = tokenizer.encode_batch([text for text, _ in batch]), part[start : start + len(batch)]
            for number in np.unique(here):
                split, mine = SPLITS[number], np.flatnonzero(here == number).tolist()
                off = np.cumsum([tokens.get(split, 0), *(len(ids[i]) for i in mine)])
                tok = list(itertools.chain.from_iterable(ids[i] for i in mine))
                arrays = tok, off[split in tokens :], labels[start:][mine], [batch[i][1] for i in mine]
                for (kind, dtype), what in zip(KINDS.items(), arrays):
                    with open(f'{folder}/{split}.{kind}', 'ab') as f:
                        f.write(np.array(what, dtype=dtype).tobytes())
                tokens[split] = int(off[-1])
            start += len(batch)
    return tokens


def prepare(settings):
    """
    The settings named in RECIPE -> the folder of the prepared data, which is made where it is missing. ValueError: what the
    user can mend. pretrained.Unreachable: the raw files of a known dataset are neither here nor to be had.
    """
    s = {key: settings[key] for key in RECIPE}
    data_dir, known = s['data_dir'] or os.path.join(HERE, 'data'), DATASETS.get(s['dataset'], {})
    name, kind = os.path.splitext(os.path.basename(s['dataset']))
    if not known and kind.lower() not in ('.csv', '.tsv', '.jsonl'):
        raise ValueError(f'dataset {s["dataset"]!r} is neither one of {", ".join(DATASETS)} nor a .csv, .tsv or .jsonl file')
    if min(s['val_fraction'], s['test_fraction']) < 0 or s['val_fraction'] + s['test_fraction'] >= 1:
        raise ValueError('val_fraction and test_fraction leave nothing to train on; set them to 0.1 each')
    tokenizer = get_tokenizer(s['tokenizer'], [])  # bpe<N> is learned later
    if tokenizer.n_vocab > 1 << 16:
        raise ValueError(f'{s["tokenizer"]} has {tokenizer.n_vocab:,} tokens; choose a tokenizer of at most 65,536')
    paths = find_raw(name, data_dir) if known else {'train': s['dataset']}
    paths |= {'test': s['test_file']} if s['test_file'] else {}
    recipe = {'format': 2, 'raw': {}, 'names': known.get('names', {}), 'tokenizer': [tokenizer.name, tokenizer.sha256]}
    recipe['columns'] = [s[key] or own for key, own in zip(('text_column', 'label_column'), known.get('columns', ('', '')))]
    recipe |= {key: s[key] for key in (*CLEANING, *SPLIT)} | ({'test_fraction': 0} if 'test' in paths else {})
    for split, path in paths.items():
        if not os.path.isfile(path):
            raise ValueError(f'there is no file {path}; check --dataset and --test_file')
        with open(path, 'rb') as f:
            recipe['raw'][split] = hashlib.file_digest(f, 'sha256').hexdigest()
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    folder = os.path.join(data_dir, name, f'{tokenizer.name}-{digest}')
    if not os.path.exists(f'{folder}/meta.json'):
        print(f'preparing {s["dataset"]} in {folder}', file=sys.stderr)
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(folder), ignore_cleanup_errors=True) as temp:
            os.mkdir(new := f'{temp}/new')
            build(temp, new, name, paths, recipe, tokenizer)
            if not os.path.exists(f'{folder}/meta.json'):  # another process may have been faster
                os.rename(new, folder)
    if s['strict'] and (n := read_json(folder, 'meta.json')['rejected']):
        raise ValueError(f'{n} rows cannot be used, see {folder}/rejected.csv; mend them, or leave out --strict')
    return folder


def build(temp, folder, dataset, paths, recipe, tokenizer):
    """Fills an empty folder: scan the raw files, split, learn the tokens, write the splits, count for the report."""
    labels, y, keys, columns, count = scan(temp, folder, paths, recipe)
    n = count['train']
    if not 2 <= len(labels) <= max(2, min(n // 2, 1 << 16)):
        what = f'{len(labels)} labels in {n} usable rows ({count["rejected"]} rejected)'
        raise ValueError(f'{paths["train"]}: {what}; is --label_column={recipe["columns"][1]} right?')
    if count['emptied'] == len(y):
        raise ValueError(f'{paths["train"]}: cleaning leaves nothing of any text; is --speakers={recipe["speakers"]} right?')
    order = sorted(labels, key=lambda x: (0, float(x), x) if re.fullmatch(r'-?\d+(\.\d+)?', x) else (1, 0, x))  # 2 before 10
    y = np.argsort([labels[label] for label in order])[y]
    part = np.full(len(y), 2, dtype=np.uint8)
    part[:n], repeated, conflicts = assign(keys[:n], y[:n], *(recipe[key] for key in SPLIT))
    if tokenizer.kind == 'bpe' and tokenizer.name != 'gpt2':
        with open(f'{temp}/rows') as rows:
            step = 1 + os.path.getsize(rows.name) // 20_000_000  # 20 MB teach enough
            some = itertools.islice(itertools.compress(rows, part == 0), 0, None, step)
            tokenizer = get_tokenizer(tokenizer.name, (json.loads(line)[0] for line in some))
    per_split = {SPLITS[i]: np.bincount(y[part == i], minlength=len(order)).tolist() for i in np.unique(part)}
    meta = {'dataset': dataset, 'labels': order, 'recipe': recipe, 'rejected': count['rejected']}
    meta['rows'] = {split: sum(counts) for split, counts in per_split.items()}
    meta['tokens'] = write_splits(temp, folder, y, part, tokenizer)
    meta['tokenizer'] = {key: getattr(tokenizer, key) for key in ('name', 'n_vocab', 'sha256', 'n_prefix', 'n_suffix')}
    write_json(folder, 'tokenizer_state.json', tokenizer.state())
    write_json(folder, 'meta.json', meta)
    train, i = Split(folder, 'train'), meta['rows']['train'] // 2
    of_label = {label: train.lengths[train.labels == k] for k, label in enumerate(order) if per_split['train'][k]}
    report = meta | {
        'emptied': count['emptied'],
        'repeated_rows': repeated,
        'texts_under_several_labels': conflicts,
        'test_texts_in_train': int(np.isin(keys[n:], keys[:n]).sum()),
        'labels': {split: dict(zip(order, counts)) for split, counts in per_split.items()},
        'lengths': {label: np.percentile(lengths, (5, 50, 95, 100)).tolist() for label, lengths in of_label.items()},
        'share_truncated': {size: float((train.lengths > size).mean()) for size in (64, 128, 256, 512, 1024)},
        'columns': {column: describe(seen) for column, seen in columns.items() if column != recipe['columns'][1]},
        'example': {'row': int(train.rows[i]), 'label': order[train.labels[i]], 'text': tokenizer.decode(train[i])},
    }
    write_json(folder, 'report.json', report)


def read_json(folder, name):
    """ValueError where the file is gone or broken."""
    try:
        with open(f'{folder}/{name}', encoding='utf-8') as f:
            return json.load(f)
    except (OSError, ValueError) as e:
        raise ValueError(f'{folder}/{name} cannot be read ({e}); delete {folder} and prepare again') from None


def write_json(folder, name, what):
    with open(f'{folder}/{name}', 'w', encoding='utf-8') as f:
        json.dump(what, f, indent=1)


def describe(counts):
    """
    Counter of (value, label) of a column -> missing and distinct values and, of a category, Pearson's chi-square test: does it
    go with the label? Example: {(a, x): 10, (a, y): 20, (b, x): 20, (b, y): 10} -> chi2 6.667, df 1, p 0.0098
    """
    import torch

    values, labels = (list(dict.fromkeys(names)) for names in zip(*counts))
    out = {'missing': sum(n for (value, _), n in counts.items() if not value), 'distinct': len(values)}
    if len(counts) >= 1000:  # scan gave up
        out['distinct'] = None
    elif 2 <= len(values) <= 50:
        seen = np.array([[counts[value, label] for label in labels] for value in values], dtype=float)
        expected = seen.sum(axis=1, keepdims=True) * seen.sum(axis=0) / seen.sum()
        chi2, df = ((seen - expected) ** 2 / expected).sum(), (len(values) - 1) * (len(labels) - 1)
        p = torch.special.gammaincc(*torch.tensor((df / 2, chi2 / 2), dtype=torch.float64))
        out |= {'chi2': float(chi2), 'df': df, 'p': float(p)}
    return out


def show(report, share_truncated):
    """The report for people, on stdout."""
    for key in ('dataset', 'rows', 'rejected', 'emptied', 'repeated_rows', 'texts_under_several_labels', 'test_texts_in_train'):
        print(f'{key:28} {report[key]}')
    print(f'\n{"label":20}' + ''.join(f'{split:>10}' for split in report['rows']) + '   tokens: p5   p50   p95   max')
    for label, lengths in report['lengths'].items():
        counts = ''.join(f'{n[label]:10,}' for n in report['labels'].values())
        print(f'{label[:20]:20}{counts}     ' + ''.join(f'{n:6.0f}' for n in lengths))
    print(f'\n{"column":28} missing distinct       chi2  df        p  goes with the label?')
    for column, c in report['columns'].items():
        test = '{chi2:11.1f} {df:3} {p:8.2g}  '.format(**c) + ('yes' if c['p'] < 0.01 else 'no') if 'p' in c else ''
        print(f'{column[:28]:28} {c["missing"]:7,} {c["distinct"] or "many":>8}{test}')
    print(f'\n{share_truncated:.1%} of the training texts are cut. One of them all:\n{report["example"]}')


def truncate(ids, block_size, keep, n_prefix, n_suffix):
    """
    At most block_size of the ids, special tokens at both ends kept; keep = 'first', 'last' or 'both' ends of the text.
    Example: truncate([CLS, a, b, c, SEP], 4, 'first', 1, 1) -> [CLS, a, b, SEP]
    """
    if len(ids) <= block_size:
        return ids
    left = {'first': block_size - n_suffix, 'last': n_prefix, 'both': block_size // 2}[keep]
    return np.concatenate([ids[:left], ids[len(ids) - (block_size - left) :]])


class Split:
    """
    One prepared split over memmaps: split[i] is the ids (T,) of text i cut to block_size, lengths (n,) those of all, labels
    (n,), rows (n,) in the raw file. Opening it reads no token; files that do not fit meta.json are a ValueError.
    """

    def __init__(self, folder, name, block_size=1 << 30, keep='first'):
        self.meta, self.block_size, self.keep, arrays = read_json(folder, 'meta.json'), block_size, keep, []
        n, tokens = (self.meta[key].get(name, 0) for key in ('rows', 'tokens'))
        for (kind, dtype), size in zip(KINDS.items(), (tokens, n + 1, n, n)):
            path, expected = f'{folder}/{name}.{kind}', size * np.dtype(dtype).itemsize
            found = os.path.getsize(path) if os.path.exists(path) else 0
            if not found == expected > 0:
                raise ValueError(f'{path} has {found} bytes, meta.json says {expected}; delete {folder} and prepare again')
            arrays.append(np.asarray(np.memmap(path, dtype=dtype, mode='r')))
        self.tokens, self.off, self.labels, self.rows = arrays

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        specials = self.meta['tokenizer']['n_prefix'], self.meta['tokenizer']['n_suffix']
        return truncate(self.tokens[self.off[i] : self.off[i + 1]], self.block_size, self.keep, *specials)

    @property
    def lengths(self):
        return np.minimum(np.diff(self.off), self.block_size)


if __name__ == '__main__':
    config = configure(globals())
    try:
        folder = prepare(config)
        report, lengths = read_json(folder, 'report.json'), Split(folder, 'train').lengths
    except (ValueError, OSError) as e:
        stop(e)
    sys.stdout.reconfigure(errors='backslashreplace')  # a text may hold what the terminal has no letters for
    last = {key: report[key] for key in ('dataset', 'rows', 'rejected', 'labels', 'tokens')}
    last |= {'tokenizer': report['tokenizer']['name'], 'share_truncated': float((lengths > block_size).mean())}
    show(report, last['share_truncated'])
    print(json.dumps(last | {'folder': folder}))
