"""
From a raw file to what get_batch reads: rows -> clean text -> split -> tokens -> memmaps, and a report on the data.
train.py calls this by itself; alone it is for looking at data before training on it.
$ python prepare.py --dataset=mine.csv --text_column=body --label_column=mood --tokenizer=gpt2
Writes data/<dataset>/<tokenizer>-<8 hex digits of the recipe>/: per split .tok uint16 (all texts end to end, uncut),
.off int64 (n + 1 offsets), .lab uint16 and .row int64 (record of the raw file, from 0); meta.json, tokenizer_state.json,
report.json and rejected.csv. Rows are streamed: memory holds a few numbers of each, not the texts (but for `parts`).
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
from collections import Counter, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor

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
tokenizer = 'bpe2048'  # bpe<N>: N tokens of the training split, for short texts bpe<N>-prefix; gpt2; or a tokenizer.json
lowercase = True
strip_brackets = True  # ( ) [ ] { } go, what they hold stays
strip_html = True  # tags and entities
speakers = 'all'  # of a dialogue with "Name:" at line starts: 'all' turns with their names, or e.g. 'customer' alone
# split
val_fraction = 0.1  # of each label, carved out of the training file
test_fraction = 0.1  # likewise, where there is no test file
split_seed = 0
folds = 0  # instead of the test split: the training file in so many parts, alike in labels, of which
fold = 0  # the one with this number, from 1, is the test
block_size = 256  # only to report what share of the texts it would cut
# -----------------------------------------------------------------------------

HERE = os.path.dirname(os.path.abspath(__file__))
CLEANING = ('lowercase', 'strip_brackets', 'strip_html', 'speakers')
SPLITTING, FOLDS = ('val_fraction', 'test_fraction', 'split_seed'), ('folds', 'fold')
RECIPE = ('dataset', 'text_column', 'label_column', 'test_file', 'data_dir', 'strict', 'tokenizer', *CLEANING, *SPLITTING)
SPLITS, BATCH, LINES = ('train', 'val', 'test'), 2048, {'encoding': 'utf-8', 'newline': '\n'}  # texts a batch; of temp/texts
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
        'parts': True,  # rows are phrases of other rows
        'train': ('train.tsv', '9f81648d4199384278b86e315dac217c'),
        'test': ('dev.tsv', '9f81648d4199384278b86e315dac217c'),
        'url': 'https://dl.fbaipublicfiles.com/glue/data/SST-2.zip#SST-2/{}',
    },
}

# -----------------------------------------------------------------------------
# cleaning: pure str -> str

SPEAKER = re.compile(r"^[^\S\n]*([^\W\d_][\w&'./ -]{0,39})(?:\([^()\n]{1,40}\))?[^\S\n]*:(?!//|(?<=\d:)\d)", re.MULTILINE)
TAG, BRACKET, FLAW = re.compile(r'<[a-zA-Z/!][^<>]*>'), re.compile(r'[()\[\]{}]'), re.compile('[\0\ud800-\udfff]')


def only_speakers(text, names):
    """The turns of the named, each up to anybody's next "Name:"; the whole text where nobody is named: it is no dialogue."""
    before, *rest = SPEAKER.split(text)  # before, name, turn, name, turn, ...
    names = {name.strip().lower() for name in names.split(',')}
    return ''.join(turn for name, turn in zip(rest[::2], rest[1::2]) if name.strip().lower() in names) if rest else before


def scrub(text, lowercase, strip_brackets, strip_html, speakers):
    """The steps in their order; '' where nothing is left. White space: one blank, or one line end."""
    text = TAG.sub(' ', html.unescape(text)) if strip_html else text  # in this order, because scraped text escapes its tags
    text = '\n'.join(text.splitlines())  # any kind of line end
    text = only_speakers(text, speakers) if speakers != 'all' else text
    text = BRACKET.sub('', text) if strip_brackets else text
    text = text.lower() if lowercase else text
    return '\n'.join(filter(None, [' '.join(line.split()) for line in text.split('\n')]))


def clean(text, **cleaning):
    """What the model is shown of a raw text, in training and in use. What the steps would empty is shown as it was."""
    return scrub(text, **cleaning) or text.strip()


def find_raw(dataset, data_dir, test_file=''):
    """-> {split: path}: a known dataset's in data_dir, beside this file, in $NANOSENTIMENT_RAW, or downloaded into data_dir."""
    from pretrained import fetch

    known, paths = DATASETS.get(dataset, {}), {} if dataset in DATASETS else {'train': dataset}
    roots = [root for root in (data_dir, os.path.join(HERE, 'data'), os.getenv('NANOSENTIMENT_RAW')) if root]
    for split in ('train', 'test') if known else ():  # in this order: what labels there are is up to train
        name, digest = known[split]
        places = [os.path.join(root, dataset, name) for root in roots]
        way_out = f'save it as {places[0]}, or let NANOSENTIMENT_RAW name a folder that holds {dataset}/{name}'
        paths[split] = next(filter(os.path.exists, places), '') or fetch(known['url'].format(name), places[0], digest, way_out)
    return paths | ({'test': test_file} if test_file else {})


def read_rows(path):
    """A .csv, .tsv (unquoted, as GLUE's) or .jsonl -> yields (line number, {column: str}, why it cannot be used or '')."""
    kind, columns, delimiter, number, n_line = os.path.splitext(path)[1].lower(), [], '', 0, 1
    csv.field_size_limit(1 << 22)  # characters; a longer one is an open quote
    with open(path, encoding='utf-8-sig', errors='surrogateescape', newline='\n') as f:
        for line in iter(f.readline, ''):
            number, n_line, reason, fields = number + n_line, 1, '', []
            delimiter = delimiter or ('\t' if kind == '.tsv' else max(',;\t', key=line.count))
            if not line.strip('\r\n'):
                continue  # an empty line is no row
            try:
                if kind == '.jsonl':
                    row = json.loads(line)
                    columns += [column for column in row.keys() if column not in columns]
                    fields = ['' if row.get(column) is None else str(row[column]) for column in columns]
                elif kind == '.tsv' or '"' not in line:  # most lines, and much faster
                    fields = line.rstrip('\r\n').split(delimiter)
                else:
                    after, lines = f.tell(), itertools.chain([line], iter(f.readline, ''))
                    reader = csv.reader(lines, delimiter=delimiter, strict=True)
                    fields, n_line = next(reader), reader.line_num
            except csv.Error as e:
                reason = f'broken quoting: {e}'
                f.seek(after)  # an open quote may have swallowed good rows
            except (ValueError, AttributeError, RecursionError):
                reason = 'not a JSON object'
            if not reason and columns and len(fields) != len(columns):
                reason = f'{len(fields)} fields, the header has {len(columns)}'
            elif flaw := FLAW.search(''.join((*columns, *fields))):  # not UTF-8 is read as a surrogate
                reason = 'NUL byte' if flaw[0] == '\0' else 'not UTF-8'
            if columns or kind == '.jsonl':
                yield number, dict(zip(columns, fields)), reason
            fields = fields if columns else [x.strip() for x in fields]  # the header, where no two may be alike
            columns = columns or [x + f'.{i}' * (x in fields[:i]) for i, x in enumerate(fields)]


def scan(temp, folder, paths, recipe, y, records, keys, labels, columns, count):
    """
    Raw files -> yields clean texts; leaves temp/texts (lines; their own line ends as NUL, which none has) and rejected.csv.
    Fills, of each text, label, record, 64 bits that equal texts share; {label: number}; {column: {(value, label): n}}; count.
    """
    cleaning = {key: recipe[key] for key in CLEANING}
    with open(f'{temp}/texts', 'w', **LINES) as texts, open(f'{folder}/rejected.csv', 'w', newline='', encoding='utf-8') as f:
        (rejected := csv.writer(f)).writerow(('file', 'line', 'reason'))
        for split, path in paths.items():
            for record, (line, row, reason) in enumerate(read_rows(path)):
                for column, setting in zip(recipe['columns'], ('text_column', 'label_column')):
                    if not reason and column not in row and not path.endswith('.jsonl'):  # whose rows may lack some
                        raise ValueError(f'{path}: there is no column {column!r}; set --{setting} to one of {", ".join(row)}')
                raw, label = [row.get(column, '').strip() for column in recipe['columns']]
                label = recipe['names'].get(label, label)
                odd = f'label {label[:40]!r} is unknown to the training file' if split == 'test' and label not in labels else ''
                reason = reason or ('no text' if not raw else 'no label' if not label else odd)
                if reason:
                    count['rejected'] += 1
                    count['why'] = count['why'] or f'; mend them, the first in line {line} of {path}: {reason}'
                    rejected.writerow((path, line, reason))
                    continue
                text = scrub(raw, **cleaning)
                count[split], count['emptied'] = count[split] + 1, count['emptied'] + (not text)
                y.append(labels.setdefault(label, len(labels)))
                records.append(record)
                keys.append(hash(text := text or raw))
                for column, value in row.items() if split == 'train' else ():
                    if column != recipe['columns'][1] and (not value or len(columns[column]) < 1000):  # more are no categories
                        columns[column][value and hash(value), label] += 1
                texts.write(text.replace('\n', '\0') + '\n')
                yield text


def read_texts(temp):
    with open(f'{temp}/texts', **LINES) as texts:
        for line in texts:
            yield line[:-1].replace('\0', '\n')


def assign(keys, labels, val_fraction, test_fraction, seed, folds=0, fold=0):
    """
    keys (n,) and labels (n,) -> part (n,): 0 train, 1 val, 2 test; how many rows repeat a text; how many texts have several
    labels. Equal texts stay together, under the label of the first; a label of two texts has one in train and one in val.
    """
    order = np.argsort(keys, kind='stable').astype(np.uint32)  # equal texts side by side; half the bytes, for there are many
    new = np.diff(keys[order], prepend=~keys[order[0]]) != 0  # here another text begins; ~x is not x
    first, text = order[new], np.empty_like(order)  # (n_text,) its first row, (n,) the number of a row's text
    text[order] = np.cumsum(new, dtype=np.uint32) - 1
    label_of, size = labels[first], np.bincount(labels[first])  # (n_text,), (n_label,)
    n_val = np.clip(np.rint(size * val_fraction), val_fraction > 0, np.maximum(size - 1, 0))
    n_test = np.clip(np.rint(size * test_fraction), test_fraction > 0, np.maximum(size - 1 - n_val, 0))
    begin = n_val
    if fold:  # its share of each label, so that every text is tested in one fold
        begin, end = (-(-size * k // folds) for k in (fold - 1, fold))
        n_test, n_val = end - begin, np.minimum(n_val, np.maximum(size - 1 - (end - begin), 0))
    draw = label_of + np.random.default_rng(seed).random(len(keys))[first]  # by the row: other cleaning, same validation rows
    sizes, part = np.stack((n_val, n_test, size - n_val - n_test), axis=1).astype(int), np.empty(len(first), dtype=np.uint8)
    rows = [np.roll(np.repeat(np.uint8([1, 2, 0]), n), shift) for n, shift in zip(sizes, (begin - n_val).astype(int))]
    part[np.argsort(draw, kind='stable')] = np.concatenate(rows)
    return part[text], len(keys) - len(first), len(np.unique(text[labels != label_of[text]]))


def follow(texts, part):
    """
    texts (n,), part (n,) of each -> part (n,), where a text within others goes where all of these went, or else to train.
    Without that a net is validated on phrases that it knows: on SST-2 that gave .947 where new sentences gave .897.
    """
    where, whole = dict.fromkeys(texts, 0), dict(zip(texts, part.tolist()))  # where: a bit for each part; sets are slower
    for text in sorted(whole, key=len, reverse=True):
        if where[text]:
            continue  # what lies within it lies within those around it, too
        cuts = [-1, *(i for i, character in enumerate(text) if character in ' \n'), len(text)]  # slicing is faster than joining
        for i, j in itertools.combinations(cuts, 2):
            if (phrase := text[i + 1 : j]) in where and phrase != text:
                where[phrase] |= 1 << whole[text]
    return np.array([{0: p, 2: 1, 4: 2}.get(where[text], 0) for text, p in zip(texts, part.tolist())], dtype=np.uint8)


def encode(texts, temp, tokenizer, pool):
    """Texts -> temp/ids, end to end, in pool's thread: `tokenizers` lets Python go on. Returns jobs: lengths in tokens."""

    def write(batch):
        ids = tokenizer.encode_batch(batch)
        with open(f'{temp}/ids', 'ab') as f:
            f.write(np.fromiter(itertools.chain.from_iterable(ids), dtype=np.uint16).tobytes())
        return np.fromiter(map(len, ids), dtype=np.int64)

    jobs = []
    while batch := list(itertools.islice(texts, BATCH)):
        jobs.append(pool.submit(write, batch))
        if len(jobs) > 16:
            jobs[-16].result()  # no more than these wait in memory
    return jobs


def prepare(settings):
    """The settings named in RECIPE -> the prepared folder, made where missing. Raises ValueError, or pretrained.Unreachable."""
    s = {key: settings[key] for key in RECIPE} | {key: settings.get(key, 0) for key in FOLDS}
    data_dir, known = s['data_dir'] or os.path.join(HERE, 'data'), DATASETS.get(s['dataset'], {})
    name, kind = os.path.splitext(os.path.basename(s['dataset']))
    if not known and kind.lower() not in ('.csv', '.tsv', '.jsonl'):
        raise ValueError(f'dataset {s["dataset"]!r} is neither one of {", ".join(DATASETS)} nor a .csv, .tsv or .jsonl file')
    val, test, folds, fold = (s[key] for key in ('val_fraction', 'test_fraction', *FOLDS))
    if min(val, test) < 0 or val + test >= 1 or folds == 1 or not 0 <= fold <= folds:
        raise ValueError(f'val_fraction {val}, test_fraction {test}, fold {fold} of {folds} leave nothing; try 0.1, 0.1, 0, 0')
    tokenizer = get_tokenizer(s['tokenizer'], [])  # bpe<N> is learned later
    if tokenizer.n_vocab > 1 << 16:
        raise ValueError(f'{s["tokenizer"]} has {tokenizer.n_vocab:,} tokens; choose a tokenizer of at most 65,536')
    paths = find_raw(s['dataset'], data_dir, s['test_file'])
    paths = {'train': paths['train']} if fold else paths
    recipe = {'format': 2, 'raw': {}, 'names': known.get('names', {}), 'tokenizer': [tokenizer.name, tokenizer.sha256]}
    recipe['columns'] = [s[key] or own for key, own in zip(('text_column', 'label_column'), known.get('columns', ('', '')))]
    recipe |= {key: s[key] for key in (*CLEANING, *SPLITTING)} | ({'test_fraction': 0} if 'test' in paths or fold else {})
    recipe |= {key: s[key] for key in FOLDS if fold} | ({'parts': True} if 'parts' in known else {})
    for split, path in paths.items():
        if not os.path.isfile(path):
            raise ValueError(f'there is no file {path}, seen from {os.getcwd()}; check its name, or go where it lies')
        with open(path, 'rb') as f:
            recipe['raw'][split] = hashlib.file_digest(f, 'sha256').hexdigest()
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    folder = os.path.join(room := os.path.join(data_dir, name), f'{tokenizer.name}-{digest}')
    if not os.path.exists(f'{folder}/meta.json'):
        print(f'preparing {s["dataset"]} in {folder}', file=sys.stderr)
        os.makedirs(room, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=room, ignore_cleanup_errors=True) as temp, ThreadPoolExecutor(1) as pool:
            os.mkdir(new := f'{temp}/new')
            build(temp, new, name, paths, recipe, tokenizer, pool)
            if not os.path.exists(f'{folder}/meta.json'):  # another process may have been faster
                os.rename(new, folder)
    if s['strict'] and (n := read_json(folder, 'report.json')['rejected']):
        raise ValueError(f'{n} rows cannot be used, see {folder}/rejected.csv; mend them, or leave out --strict')
    return folder


def build(temp, folder, dataset, paths, recipe, tokenizer, pool):
    """Fills an empty folder: scan the raw files, split, learn the tokens, encode, count for the report."""
    from metrics import describe  # with torch, which is slow to come

    y, records, keys, labels, columns, count = seen = array('i'), array('q'), array('q'), {}, defaultdict(Counter), Counter()
    texts, learn = scan(temp, folder, paths, recipe, *seen), tokenizer.kind == 'bpe' and tokenizer.name != 'gpt2'
    jobs = deque(texts, 0) if learn else encode(texts, temp, tokenizer, pool)  # learn: scan first, into temp/texts
    (y, records, keys), n = map(np.asarray, (y, records, keys)), count['train']
    if not 2 <= len(labels) <= max(2, min(n // 2, 1 << 16)):
        what = f'{len(labels)} labels in {n} usable rows, {count["rejected"]} rejected{count["why"] or ""}'
        raise ValueError(f'{paths["train"]}: {what}; is --label_column={recipe["columns"][1]} right?')
    if 'test' in paths and len(y) == n:
        raise ValueError(f'{paths["test"]}: none of its rows can be used{count["why"] or ""}; leave it out, or mend it')
    if count['emptied'] == len(y):
        raise ValueError(f'{paths["train"]}: cleaning leaves nothing of any text; is --speakers={recipe["speakers"]} right?')
    order = sorted(labels, key=lambda x: (0, float(x), x) if re.fullmatch(r'-?\d+(\.\d+)?', x) else (1, 0, x))  # 2 before 10
    y = np.argsort([labels[label] for label in order]).astype(np.uint16)[y]
    part = np.full(len(y), 2, dtype=np.uint8)
    part[:n], repeated, conflicts = assign(keys[:n], y[:n], *(recipe.get(key, 0) for key in SPLITTING + FOLDS))
    part[:n] = follow(list(itertools.islice(read_texts(temp), n)), part[:n]) if 'parts' in recipe else part[:n]
    if learn:  # 10 MB teach enough
        some = itertools.compress(read_texts(temp), part == 0)
        some = itertools.islice(some, 0, None, 1 + os.path.getsize(f'{temp}/texts') // 10_000_000)
        jobs = encode(read_texts(temp), temp, tokenizer := get_tokenizer(tokenizer.name, some), pool)
    lengths = np.concatenate([job.result() for job in jobs])
    ids, ends = np.memmap(f'{temp}/ids', dtype=np.uint16, mode='r'), lengths.cumsum()
    about = {key: getattr(tokenizer, key) for key in ('name', 'n_vocab', 'sha256', 'n_prefix', 'n_suffix')}
    meta = {'dataset': dataset, 'labels': order, 'tokenizer': about, 'recipe': recipe, 'rows': {}, 'tokens': {}}
    report = {'rejected': count['rejected'], 'emptied': count['emptied'], 'repeated_rows': repeated, 'labels': {}}
    known = np.sort(keys[:n])  # np.isin would take six times the memory
    leaked = int((known[np.searchsorted(known, keys[n:], 'right') - 1] == keys[n:]).sum())
    report |= {'texts_under_several_labels': conflicts, 'test_texts_in_train': leaked}
    for number in np.unique(part):
        split, mine = SPLITS[number], part == number
        for kind, what in zip(('off', 'lab', 'row'), (np.append(0, lengths[mine].cumsum()), y[mine], records[mine])):
            what.astype(KINDS[kind]).tofile(f'{folder}/{split}.{kind}')
        with open(f'{folder}/{split}.tok', 'wb') as f:
            for some in np.array_split(np.arange(len(y)), -(-len(y) // BATCH)):
                tokens = ids[ends[some[0]] - lengths[some[0]] : ends[some[-1]]]
                tokens[np.repeat(mine[some], lengths[some])].tofile(f)
        meta['rows'][split], meta['tokens'][split] = int(mine.sum()), int(lengths[mine].sum())
        report['labels'][split] = dict(zip(order, np.bincount(y[mine], minlength=len(order)).tolist()))
    y, lengths, row = y[part == 0], lengths[part == 0], int(records[part == 0][0])
    report['lengths'] = {x: np.percentile(lengths[y == i], (5, 50, 95, 100)).tolist() for i, x in enumerate(order) if i in y}
    report['columns'] = {column: describe(seen) for column, seen in columns.items()}
    first = np.fromfile(f'{folder}/train.tok', dtype=np.uint16, count=lengths[0])
    report['example'] = {'row': row, 'label': order[y[0]], 'text': tokenizer.decode(first)}
    for name, what in (('tokenizer_state', tokenizer.state()), ('report', meta | report), ('meta', meta)):
        with open(f'{folder}/{name}.json', 'w', encoding='utf-8') as f:
            json.dump(what, f, indent=1)


def read_json(folder, name):
    try:
        with open(f'{folder}/{name}', encoding='utf-8') as f:
            return json.load(f)
    except (OSError, ValueError) as e:
        raise ValueError(f'{folder}/{name} cannot be read ({e}); delete {folder} and prepare again') from None


def truncate(ids, block_size, keep, n_prefix, n_suffix):
    """At most block_size of the ids: all special tokens, and of the text the 'first', the 'last' or 'both' ends."""
    if len(ids) <= block_size:
        return ids
    left = {'first': block_size - n_suffix, 'last': n_prefix, 'both': block_size // 2}[keep]
    return np.concatenate([ids[:left], ids[len(ids) - (block_size - left) :]])


class Split:
    """Memmaps: split[i] is ids (T,) of text i cut to block_size; lengths, labels, raw rows (n,). Broken files: ValueError."""

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
    from metrics import show_data

    config = configure(globals())
    try:
        folder = prepare(config)
        report, train = read_json(folder, 'report.json'), Split(folder, 'train')
    except (ValueError, OSError) as e:
        stop(e)
    report |= {'tokenizer': report['tokenizer']['name'], 'share_truncated': float((train.lengths > block_size).mean())}
    show_data(report)
    keys = 'dataset tokenizer rows rejected labels tokens share_truncated'
    print(json.dumps({key: report[key] for key in keys.split()} | {'folder': folder}))
