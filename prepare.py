"""
From a raw file to what get_batch reads: rows -> clean text -> split -> tokens -> memmaps, and a report on the data.
train.py calls this by itself; alone it is for looking at data before training on it.
$ python prepare.py --dataset=mine.csv --text_column=body --label_column=mood --tokenizer=gpt2

Writes data/<dataset>/<tokenizer>-<8 hex digits of the recipe>/: per split .tok uint16 (all texts end to end, uncut),
.off int64 (n + 1 offsets), .lab uint16 and .row int64 (row in the raw file, from 0); meta.json, tokenizer_state.json,
report.json and rejected.csv. Rows are streamed: memory holds a few numbers of each, never its text.
"""

import csv
import hashlib
import html
import itertools
import json
import os
import re
import shutil
import sys
from collections import Counter, deque

import numpy as np

from configurator import configure, stop
from tokenizer import get_tokenizer

# -----------------------------------------------------------------------------
# data
dataset = 'customer_service'  # a row of DATASETS below, or the path of your own .csv, .tsv or .jsonl
text_column = ''  # '' is the dataset's own
label_column = ''
test_file = ''  # for your own data: a file of the same columns
data_dir = ''  # prepared data goes here; '' is data/ beside this file
strict = False  # True: the first row that cannot be used is an error, else it goes to rejected.csv
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
ROW = np.dtype([('end', np.int64), ('label', np.int64), ('row', np.int64), ('key', np.uint64)])

# the files of each split; where they come from ({} is the file, #member is one inside a zip), and md5 or sha256 of that
DI725 = 'https://raw.githubusercontent.com/caglarmert/DI725/4b066861287213ff0f1d44806c1b7ad63569d0e8/assignment_1/data/'
DIALOGUES = {'files': {'train': 'train.csv', 'test': 'test.csv'}, 'columns': ('conversation', 'customer_sentiment')}
DATASETS = {
    'customer_service': {
        **DIALOGUES,
        'url': DI725 + 'customer_service/{}',
        'train': '17d90d76fb3ddd6bbdc816db48c1d9c68a51444618ca91916c8ffeadfe78947e',
        'test': 'b236188691c0c2e1fbba247eb554dde65c7b1bd2a70ef1ef3abf0e253eda407c',
    },
    'demo': DIALOGUES,  # bundled and synthetic, see data/demo/README.md
    'sst2': {  # GLUE keeps the labels of its test rows to itself: dev is our test, validation is carved out of train
        'files': {'train': 'train.tsv', 'test': 'dev.tsv'},
        'columns': ('sentence', 'label'),
        'names': {'0': 'negative', '1': 'positive'},
        'url': 'https://dl.fbaipublicfiles.com/glue/data/SST-2.zip#SST-2/{}',
        'train': '9f81648d4199384278b86e315dac217c',
        'test': '9f81648d4199384278b86e315dac217c',
    },
}

# -----------------------------------------------------------------------------
# cleaning: pure str -> str

TAG = re.compile(r'<(?:[a-zA-Z/][^<>]*|!--.*?--)>', re.DOTALL)
SPEAKER = re.compile(r"^[^\S\n]*([A-Za-z][\w&'./ -]{0,39}):(?!//)[^\S\n]*", re.MULTILINE)


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
    Example: 'Agent: Hi.\\n\\nCustomer: It broke.\\nTwice.\\n\\nSupervisor: Oh.', {'customer'} -> 'It broke.\\nTwice.\\n\\n'
    """
    before, *rest = SPEAKER.split(text)  # before, name, turn, name, turn, ...
    return ''.join(turn for name, turn in zip(rest[::2], rest[1::2]) if name.strip().lower() in names) if rest else before


def scrub(text, lowercase, strip_brackets, strip_html, speakers):
    """The steps in their order; '' where nothing is left. White space: one blank, or one line end."""
    text = without_html(text) if strip_html else text
    text = only_speakers(text, {name.strip().lower() for name in speakers.split(',')}) if speakers != 'all' else text
    text = without_brackets(text) if strip_brackets else text
    text = text.lower() if lowercase else text
    return re.sub(r'\s*\n\s*', '\n', re.sub(r'[^\S\n]+', ' ', text)).strip()


def clean(text, **cleaning):
    """What the model is shown of a raw text, in training and in use. What the steps would empty is shown as it was."""
    return scrub(text, **cleaning) or text.strip()


# -----------------------------------------------------------------------------
# raw files


def find_raw(dataset, data_dir):
    """A known dataset -> {split: path}: in data_dir, beside this file, in $NANOSENTIMENT_RAW, or downloaded into data_dir."""
    known, paths = DATASETS[dataset], {}
    roots = filter(None, (data_dir, os.path.join(HERE, 'data'), os.getenv('NANOSENTIMENT_RAW')))
    folders = [os.path.join(root, dataset) for root in roots]
    for split, name in known['files'].items():
        here = [p for p in (os.path.join(folder, name) for folder in folders) if os.path.exists(p)]
        if not here:
            from pretrained import fetch

            way_out = f'put {name} into {folders[0]}, or let NANOSENTIMENT_RAW name a folder that holds {dataset}/{name}'
            here = [fetch(known['url'].format(name), os.path.join(folders[0], name), known[split], way_out)]
        paths[split] = here[0]
    return paths


def sha256_of(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def read_rows(path):
    """
    A .csv, .tsv (never quoted, as in GLUE) or .jsonl -> yields (line number, {column: str}, reason): a reason says why this
    row cannot be used. One broken row costs itself only.
    """

    def checked(number, row, reason=''):
        found = re.search('[\0\ud800-\udfff]', ''.join(row.values()))  # bytes that are no UTF-8 are read as surrogates
        return number, row, reason or ('' if not found else 'NUL byte' if found[0] == '\0' else 'not UTF-8')

    def feed():  # the lines of one row
        while line := again.popleft() if again else next(lines, None):
            if len(taken) == 100_000:
                raise csv.Error('a row of 100,000 lines')
            taken.append(line)
            yield line[1]

    with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='\n') as f:
        lines, again, taken, header = enumerate(f, 1), deque(), [], None
        if path.endswith('.jsonl'):
            for number, line in lines:
                try:
                    row = json.loads(line)
                    yield checked(number, {key: '' if value is None else str(value) for key, value in row.items()})
                except (ValueError, AttributeError):
                    yield number, {}, 'not a JSON object'
            return
        again.append(next(lines, (1, '')))
        style = {'delimiter': ';' if again[0][1].count(';') > again[0][1].count(',') else ',', 'strict': True}
        if path.endswith('.tsv'):
            style = {'delimiter': '\t', 'quoting': csv.QUOTE_NONE}
        csv.field_size_limit(1 << 30)
        while True:
            taken.clear()
            try:
                fields = next(csv.reader(feed(), **style), None)
                if fields is None:
                    return
                header, is_header = header or fields, header is None
                if fields and not is_header:  # an empty line is no row
                    wrong = f'{len(fields)} fields, the header has {len(header)}' if len(fields) != len(header) else ''
                    yield checked(taken[0][0], dict(zip(header, fields)), wrong)
            except csv.Error as e:
                yield taken[0][0], {}, f'broken quoting: {e}'
                again.extendleft(reversed(taken[1:]))  # an open quote may have swallowed good rows: give them back


# -----------------------------------------------------------------------------
# the steps of preparation


def scan(path, out, columns, names, cleaning, seed, labels, reject, seen=None):
    """
    One raw file -> out.txt (clean texts end to end, UTF-8) and out.rows (a ROW each: where the text ends, label, row, and 64
    random bits that equal texts share). labels {name: id} and seen {column: Counter of (value, label)} grow with the training
    file; seen is None for the test file, where a new label is a reason to reject. Returns how many texts came out empty.
    """
    emptied, end, buffer = 0, 0, []
    with open(f'{out}.txt', 'wb') as texts, open(f'{out}.rows', 'wb') as table:
        for number, (line, row, reason) in enumerate(read_rows(path)):
            for column, setting in zip(columns, ('text_column', 'label_column')):
                if not reason and column not in row:
                    raise ValueError(f'{path}: there is no column {column!r}; set --{setting} to one of {", ".join(row)}')
            raw, label = ('', '') if reason else (row[columns[0]], row[columns[1]].strip())
            label = names.get(label, label)
            reason = reason or ('' if raw.strip() else 'no text') or ('' if label else 'no label')
            if not reason and seen is None and label not in labels:
                reason = f'label {label!r} is unknown to the training file'
            if reason:
                reject(path, line, reason)
                continue
            text = scrub(raw, **cleaning)
            emptied += not text
            text = (text or raw.strip()).encode()
            end += texts.write(text)
            key = hashlib.blake2b(text, digest_size=8, key=b'%d' % seed).digest()
            buffer.append((end, labels.setdefault(label, len(labels)), number, int.from_bytes(key, 'little')))
            for column, value in row.items() if seen is not None else ():
                counts = seen.setdefault(column, Counter())
                counts[value if len(counts) < 1000 or not value else '(more)', label] += 1
            if len(buffer) == 4096:
                table.write(np.array(buffer, dtype=ROW).tobytes())
                buffer.clear()
        table.write(np.array(buffer, dtype=ROW).tobytes())
    return emptied


def assign(keys, labels, val_fraction, test_fraction):
    """
    keys (n,) and labels (n,) -> part (n,): 0 train, 1 val, 2 test; how many rows repeat an earlier text; how many texts stand
    under several labels. Of each label the texts with the smallest keys are carved out: a fair draw, for keys are random, that
    never parts equal texts, for their keys are equal. A label of two texts has one in train and one in val.
    """
    distinct, first, group = np.unique(keys, return_index=True, return_inverse=True)
    label_of, part = labels[first], np.zeros(len(distinct), dtype=np.uint8)  # a text under two labels goes with its first row
    for label in range(int(labels.max()) + 1):
        texts = np.flatnonzero(label_of == label)  # in the order of their keys
        n_val = min(max(round(len(texts) * val_fraction), 1), len(texts) - 1) if val_fraction else 0
        n_test = min(max(round(len(texts) * test_fraction), 1), len(texts) - 1 - n_val) if test_fraction else 0
        part[texts[: max(n_val, 0)]] = 1
        part[texts[max(n_val, 0) : max(n_val, 0) + max(n_test, 0)]] = 2
    return part[group], len(keys) - len(distinct), len(np.unique(group[labels != label_of[group]]))


def texts_of(out, rows):
    """The clean texts that `scan` wrote, in order, one at a time."""
    start = 0
    with open(f'{out}.txt', 'rb') as f:
        for end in rows['end']:
            yield f.read(int(end) - start).decode()
            start = int(end)


def write_split(name, rows, texts, tokenizer):
    """rows (n,) ROW and an iterable of their texts -> the four files of a split; returns its number of tokens."""
    total = 0
    rows['label'].astype(np.uint16).tofile(f'{name}.lab')
    rows['row'].tofile(f'{name}.row')
    with open(f'{name}.tok', 'wb') as tok, open(f'{name}.off', 'wb') as off:
        off.write(np.int64(0).tobytes())
        while batch := list(itertools.islice(texts, 4096)):
            encoded = tokenizer.encode_batch(batch)
            ends = total + np.cumsum([len(ids) for ids in encoded])
            off.write(ends.astype(np.int64).tobytes())
            tok.write(np.fromiter(itertools.chain(*encoded), dtype=np.uint16).tobytes())
            total = int(ends[-1])
    return total


def prepare(settings):
    """
    The settings named in RECIPE -> the folder of the prepared data, which is made where it is missing. ValueError: what the
    user can mend. pretrained.Unreachable: the raw files of a known dataset are neither here nor to be had.
    """
    s = {key: settings[key] for key in RECIPE}
    data_dir, known = s['data_dir'] or os.path.join(HERE, 'data'), DATASETS.get(s['dataset'], {})
    name, kind = os.path.splitext(os.path.basename(s['dataset']))
    if not known and kind not in ('.csv', '.tsv', '.jsonl'):
        raise ValueError(f'dataset {s["dataset"]!r} is neither one of {", ".join(DATASETS)} nor a .csv, .tsv or .jsonl file')
    own = {'train': s['dataset'], 'test': s['test_file']} if s['test_file'] else {'train': s['dataset']}
    paths = find_raw(name, data_dir) if known else own
    for path in paths.values():
        if not os.path.isfile(path):
            raise ValueError(f'there is no file {path}; check --dataset and --test_file')
    columns = [s[key] or default for key, default in zip(('text_column', 'label_column'), known.get('columns', ('', '')))]
    learned = s['tokenizer'].startswith('bpe')  # from the training split, later
    tokenizer = None if learned else get_tokenizer(s['tokenizer'])
    recipe = {'format': 1, 'raw': {split: sha256_of(path) for split, path in paths.items()}, 'columns': columns}
    recipe |= {key: s[key] for key in (*CLEANING, 'val_fraction', 'test_fraction', 'split_seed')}
    recipe['tokenizer'] = s['tokenizer'] if learned else tokenizer.sha256
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    folder = os.path.join(data_dir, name, f'{s["tokenizer"] if learned else tokenizer.name}-{digest}')
    if not os.path.exists(os.path.join(folder, 'meta.json')):
        print(f'preparing {s["dataset"]} in {folder}', file=sys.stderr)
        temp = f'{folder}.{os.getpid()}.tmp'
        os.makedirs(temp)
        try:
            build(temp, name, paths, known.get('names', {}), recipe, tokenizer, s['strict'])
            os.rename(temp, folder)
        finally:
            shutil.rmtree(temp, ignore_errors=True)
    return folder


def build(folder, dataset, paths, names, recipe, tokenizer, strict):
    """Fills an empty folder: scan the raw files, split, learn the tokens, write the splits, count for the report."""
    labels, seen, emptied, rejected = {}, {}, 0, []
    with open(os.path.join(folder, 'rejected.csv'), 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(('file', 'line', 'reason'))

        def reject(*what):
            if strict:
                raise ValueError('{} line {}: {}; mend the row, or leave out --strict to go on without it'.format(*what))
            rejected.append(what[1])
            writer.writerow(what)

        cleaning = {key: recipe[key] for key in CLEANING}
        for source, path in paths.items():
            grows = seen if source == 'train' else None
            emptied += scan(
                path, f'{folder}/{source}', recipe['columns'], names, cleaning, recipe['split_seed'], labels, reject, grows
            )
    raw = {source: np.fromfile(f'{folder}/{source}.rows', dtype=ROW) for source in paths}
    rows = raw['train']
    if len(labels) < 2 or len(labels) > max(2, len(rows) // 2):
        what = f'{len(labels)} labels in {len(rows)} usable rows ({len(rejected)} rejected)'
        raise ValueError(f'{paths["train"]}: {what}; is --label_column={recipe["columns"][1]} right?')
    order = sorted(labels, key=lambda x: (0, int(x), '') if re.fullmatch(r'-?[0-9]{1,9}', x) else (1, 0, x))  # 2 before 10
    for table in raw.values():
        table['label'] = np.array([order.index(label) for label in labels])[table['label']]
    test_fraction = 0 if 'test' in paths else recipe['test_fraction']
    part, repeated, conflicts = assign(rows['key'], rows['label'], recipe['val_fraction'], test_fraction)
    if tokenizer is None:
        step = 1 + int(rows['end'][-1]) // 100_000_000  # 100 MB teach enough
        train = itertools.compress(texts_of(f'{folder}/train', rows), part == 0)
        tokenizer = get_tokenizer(recipe['tokenizer'], itertools.islice(train, 0, None, step))
    meta = {'dataset': dataset, 'labels': order, 'recipe': recipe, 'rejected': len(rejected), 'rows': {}, 'tokens': {}}
    meta['tokenizer'] = {key: getattr(tokenizer, key) for key in ('name', 'n_vocab', 'sha256', 'n_prefix', 'n_suffix')}
    for number, split in enumerate(('train', 'val', 'test')):
        source = split if split == 'test' and 'test' in paths else 'train'
        chosen = part == number if source == 'train' else np.ones(len(raw[source]), dtype=bool)
        if chosen.any():
            texts = itertools.compress(texts_of(f'{folder}/{source}', raw[source]), chosen)
            meta['rows'][split] = int(chosen.sum())
            meta['tokens'][split] = write_split(f'{folder}/{split}', raw[source][chosen], texts, tokenizer)
    write_json(f'{folder}/tokenizer_state.json', tokenizer.state())
    write_json(f'{folder}/meta.json', meta)
    train = Split(folder, 'train')
    n, some = train.lengths, len(train) // 2
    counts = {split: np.bincount(Split(folder, split).labels, minlength=len(order)).tolist() for split in meta['rows']}
    report = meta | {'emptied': emptied, 'repeated_rows': repeated, 'texts_under_several_labels': conflicts}
    report['test_texts_in_train'] = int(np.isin(raw['test']['key'], rows['key']).sum()) if 'test' in paths else 0
    report['labels'] = {split: dict(zip(order, x)) for split, x in counts.items()}
    report['lengths'] = {y: np.percentile(n[train.labels == i], (5, 50, 95, 100)).tolist() for i, y in enumerate(order)}
    report['share_truncated'] = {size: float((n > size).mean()) for size in (64, 128, 256, 512, 1024)}
    report['columns'] = {column: describe(c) for column, c in seen.items() if column != recipe['columns'][1]}
    report['example'] = {
        'row': int(train.rows[some]),
        'label': order[train.labels[some]],
        'text': tokenizer.decode(train[some]),
    }
    write_json(f'{folder}/report.json', report)
    for source in paths:
        os.remove(f'{folder}/{source}.txt')
        os.remove(f'{folder}/{source}.rows')


def read_json(folder, name):
    with open(os.path.join(folder, name), encoding='utf-8') as f:
        return json.load(f)


def write_json(path, what):
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(what, f, indent=1)


# -----------------------------------------------------------------------------
# the report


def chi_square(counts):
    """
    Counter of (value, label) -> chi2, degrees of freedom, p value: do column and label go together? (Pearson 1900)
    Example: {(a, x): 10, (a, y): 20, (b, x): 20, (b, y): 10} -> 6.667, 1, 0.0098
    """
    import torch

    values, labels = sorted({value for value, _ in counts}), sorted({label for _, label in counts})
    seen = np.array([[counts[value, label] for label in labels] for value in values], dtype=float)
    expected = seen.sum(axis=1, keepdims=True) * seen.sum(axis=0) / seen.sum()
    chi2, df = ((seen - expected) ** 2 / expected).sum(), (len(values) - 1) * (len(labels) - 1)
    return float(chi2), df, float(torch.special.gammaincc(torch.tensor(df / 2), torch.tensor(chi2 / 2)))


def describe(counts):
    """Counter of (value, label) of one column -> what the report says of it; chi-square where it is a category."""
    values = {value for value, _ in counts}
    out = {'missing': sum(n for (value, _), n in counts.items() if not value), 'distinct': len(values)}
    return out | dict(zip(('chi2', 'df', 'p'), chi_square(counts))) if 2 <= len(values) <= 50 else out


def show(report, share_truncated):
    """The report for people, on stdout."""
    print(
        '{dataset}: {rows} rows, {rejected} rejected, {emptied} kept uncleaned; {repeated_rows} rows repeat a text, '.format(
            **report
        ),
        end='',
    )
    print(
        '{texts_under_several_labels} texts have several labels, {test_texts_in_train} test texts are in train'.format(**report)
    )
    print(f'\n{"label":20}' + ''.join(f'{split:>9}' for split in report['rows']) + '   tokens: p5   p50   p95   max')
    for label, lengths in report['lengths'].items():
        print(f'{label[:20]:20}' + ''.join(f'{x[label]:9,}' for x in report['labels'].values()), end='     ')
        print(''.join(f'{n:6.0f}' for n in lengths))
    print(f'\n{"column":28} missing distinct       chi2  df        p  goes with the label?')
    for column, c in report['columns'].items():
        test = f'{c["chi2"]:11.1f} {c["df"]:3} {c["p"]:8.2g}  {"yes" if c["p"] < 0.01 else "no"}' if 'p' in c else ''
        print(f'{column[:28]:28} {c["missing"]:7,} {c["distinct"]:8,}{test}')
    print(
        f'\n{share_truncated:.1%} of the training texts are cut; one of them, row {{row}}, {{label}}: {{text}}'.format(
            **report['example']
        )
    )


# -----------------------------------------------------------------------------


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
    One prepared split over memmaps: split[i] is the ids (T,) of text i cut to block_size, lengths (n,) those of all, labels (n,),
    rows (n,) in the raw file. Opening it reads no token; files that do not fit meta.json are a ValueError.
    """

    def __init__(self, folder, name, block_size=1 << 30, keep='first'):
        self.meta = read_json(folder, 'meta.json')
        n, tokens = self.meta['rows'].get(name, 0), self.meta['tokens'].get(name, 0)
        self.block_size, self.keep, arrays = block_size, keep, []
        for kind, dtype, size in (
            ('tok', np.uint16, tokens),
            ('off', np.int64, n + 1),
            ('lab', np.uint16, n),
            ('row', np.int64, n),
        ):
            path, expected = os.path.join(folder, f'{name}.{kind}'), size * np.dtype(dtype).itemsize
            found = os.path.getsize(path) if os.path.exists(path) else 0
            if found != expected or not n:
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
    except (ValueError, OSError) as e:
        stop(str(e))
    report = read_json(folder, 'report.json')
    share = float((Split(folder, 'train').lengths > block_size).mean())
    show(report, share)
    last = {key: report[key] for key in ('dataset', 'rows', 'rejected', 'labels', 'tokens')}
    print(json.dumps(last | {'tokenizer': report['tokenizer']['name'], 'share_truncated': share, 'folder': folder}))
