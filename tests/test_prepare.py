# python -m pytest tests/test_prepare.py
"""What happens to a row between the raw file and get_batch: nothing lost in silence, nothing taken for what it is not."""

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import prepare as p
from metrics import describe, show_data
from prepare import RECIPE, Split, assign, clean, follow, only_speakers, prepare, read_json, read_rows, scrub, truncate
from tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parent.parent
RAW = os.environ.get('NANOSENTIMENT_RAW')
real = pytest.mark.skipif(not RAW, reason='NANOSENTIMENT_RAW names no folder with the real data')
ALL = dict(lowercase=True, strip_brackets=True, strip_html=True, speakers='all')
WORDS = 'good bad fine slow fast late kind rude broken happy parcel agent refund'.split()


def texts(n, label, start=0):
    return [(f'{WORDS[i % 13]} {WORDS[i // 13 % 13]} number {label} {i}', label) for i in range(start, start + n)]


def write_csv(path, rows, header=('body', 'mood')):
    with open(path, 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([header, *rows])
    return str(path)


def settings(tmp_path, dataset, **other):
    own = dict(dataset=str(dataset), text_column='body', label_column='mood', data_dir=str(tmp_path / 'data'))
    return {key: getattr(p, key) for key in RECIPE} | dict(tokenizer='bpe300') | own | other


def some_file(tmp_path, name='mine.csv'):
    return write_csv(tmp_path / name, texts(60, 'good') + texts(30, 'bad') + texts(10, 'meh'))


def splits(folder):
    return {name: Split(folder, name) for name in read_json(folder, 'meta.json')['rows']}


def decoded(folder, split):
    tokenizer = load_tokenizer(read_json(folder, 'tokenizer_state.json'))
    return [tokenizer.decode(ids) for ids in split]


def rejected(folder):
    with open(f'{folder}/rejected.csv', newline='', encoding='utf-8') as f:
        return [(int(row['line']), row['reason']) for row in csv.DictReader(f)]


# -----------------------------------------------------------------------------
# cleaning


@pytest.mark.parametrize(
    'raw, expected',
    [
        ('Fine (I guess) [laughs] {x}', 'fine i guess laughs x'),
        ('a &amp; <b>b</b> &lt;i&gt;c&lt;/i&gt; <!-- no --> &#39;d&#39;', "a & b c 'd'"),
        ('2 < 3 and 5 > 4, I <3 it', '2 < 3 and 5 > 4, i <3 it'),
        ('one\r\n\r\ntwo\rthree \t four\n \n five\u00a0six', 'one\ntwo\nthree four\nfive six'),
        ('  \n', ''),
    ],
)
def test_cleaning_removes_markup_and_nothing_else(raw, expected):
    """A lost "<" in "I <3 it" loses a sentiment; a kept tag is a word that the model learns."""
    assert scrub(raw, **ALL) == expected


def test_each_cleaning_step_is_a_setting():
    """A setting that does nothing is found out only after the ablation is printed."""
    off = dict(lowercase=False, strip_brackets=False, strip_html=False, speakers='all')
    raw = 'A (b) <i>c</i>'
    assert clean(raw, **off) == raw
    assert clean(raw, **off | {'lowercase': True}) == 'a (b) <i>c</i>'
    assert clean(raw, **off | {'strip_brackets': True}) == 'A b <i>c</i>'
    assert clean(raw, **off | {'strip_html': True}) == 'A (b) c'


@pytest.mark.parametrize('end', ['\n', '\n\n', '\r\n', '\r\n\r\n', '\r'])
def test_only_the_customer_speaks(end):
    """Splitting at "Agent:" alone, or at the wrong line ends, hands a Supervisor's words to the customer."""
    turns = [
        'Agent: Hello.',
        'Customer: It broke.',
        'Twice, at 10:30, see http://x.y.',
        'Senior Agent: Sorry.',
        'CUSTOMER : ok',
    ]
    turns += ['Supervisor: I am the boss.', 'Returns team: Us too.', 'Supervisor (Ann): And I.', 'Customer (Jo): Bye']
    cleaned = clean(end.join(turns), **ALL | {'speakers': 'customer'})
    assert cleaned == 'it broke.\ntwice, at 10:30, see http://x.y.\nok\nbye'
    both = clean(end.join(turns), **ALL | {'speakers': 'Customer, supervisor'})
    assert 'i am the boss' in both and 'sorry' not in both
    assert 'supervisor: i am the boss' in clean(end.join(turns), **ALL)


def test_a_text_without_speakers_is_no_dialogue():
    """A review has no customer turn; emptying it would drop every review."""
    review = 'it is 10:30 and\nhttp://example.com is down'
    assert only_speakers(review, 'customer') == review
    assert clean(review, **ALL | {'speakers': 'customer'}) == review


def test_an_emptied_text_keeps_its_raw_form():
    """Without it the model would be trained on an empty text with a label."""
    assert scrub('Agent: Bye (now).', **ALL | {'speakers': 'customer'}) == ''
    assert clean(' Agent: Bye (now). ', **ALL | {'speakers': 'customer'}) == 'Agent: Bye (now).'


def test_cleaning_a_hostile_megabyte_takes_no_time():
    """A pattern that backtracks stops the preparation of everybody's data at one row."""
    for raw in ('<!--' * 250_000, '<a ' * 300_000, ' ' * 1_000_000, '&lt' * 300_000, 'A ' * 500_000, '\n' * 1_000_000):
        clean(raw, **ALL | {'speakers': 'customer'})


# -----------------------------------------------------------------------------
# splitting


@pytest.mark.parametrize('test_fraction', [0.0, 0.1, 0.3])
def test_split_is_stratified_and_equal_texts_stay_together(test_fraction):
    """A text in both train and validation is memory taken for skill."""
    rng = np.random.default_rng(1)
    for trial in range(30):
        labels = rng.choice(5, 400, p=(0.6, 0.3, 0.08, 0.01, 0.01)) if trial else np.repeat([0, 1, 2], [300, 98, 2])
        keys = labels * 1000 + rng.integers(0, 300, 400) if trial else np.arange(400)
        part, repeated, conflicts = assign(keys, labels, 0.2, test_fraction, trial)
        assert repeated == 400 - len(set(keys)) and conflicts == 0
        for label in set(labels):
            mine = {int(k): set(part[keys == k]) for k in keys[labels == label]}
            assert all(len(where) == 1 for where in mine.values())
            n = Counter(where.pop() for where in mine.values())
            assert n[0] >= 1 and (len(mine) < 2 or n[1] >= 1) and (len(mine) < 3 or (n[2] >= 1) == (test_fraction > 0))
            if len(mine) > 20:
                assert abs(n[1] - 0.2 * len(mine)) <= 0.5 and abs(n[2] - test_fraction * len(mine)) <= 0.5


def test_split_follows_its_seed():
    """Runs of several seeds are compared on one validation split; another split must really be another."""
    keys, labels = np.random.default_rng(0).integers(-(2**62), 2**62, 200), np.arange(200) % 2
    one, same, other = (assign(keys, labels, 0.1, 0.1, seed)[0] for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


def test_conflicting_labels_are_counted_and_do_not_straddle():
    """One text under two labels is noise that the report must show, and a leak if its copies part ways."""
    keys = np.array([7, 7, 7, 3, 3, 1, 2, 4, 5, 6])
    for seed in range(20):
        part, repeated, conflicts = assign(keys, np.array([0, 1, 1, 1, 1, 0, 0, 1, 0, 1]), 0.3, 0.2, seed)
        assert (repeated, conflicts) == (3, 1)
        assert len(set(part[:3])) == 1 and len(set(part[3:5])) == 1


def test_a_label_that_only_conflicts_breaks_nothing(tmp_path):
    """Crowd labels: a label whose texts all came first under another one may be missing from train."""
    rows = texts(20, 'a') + texts(20, 'b')
    rows += [(text, 'c') for text, _ in rows[::2]]
    for seed in range(4):
        folder = prepare(settings(tmp_path, write_csv(tmp_path / 'mine.csv', rows), val_fraction=0.4, split_seed=seed))
        assert read_json(folder, 'report.json')['texts_under_several_labels'] == 20


def test_every_row_is_in_exactly_one_split_and_row_points_home(tmp_path):
    """The error report prints the raw row of a mistake: an index that is off by one prints another text."""
    rows = texts(40, 'good') + [('', 'good')] + texts(30, 'bad') + [('no label', '')] + texts(9, 'meh')
    path = write_csv(tmp_path / 'mine.csv', rows)
    folder = prepare(settings(tmp_path, path))
    seen = []
    for split in splits(folder).values():
        for text, label, row in zip(decoded(folder, split), split.labels, split.rows):
            assert rows[row] == (text, split.meta['labels'][label])
            seen.append(int(row))
    assert sorted(seen) == [i for i in range(len(rows)) if i not in (40, 71)]
    assert {'train', 'val', 'test'} == set(read_json(folder, 'meta.json')['rows'])
    assert rejected(folder) == [(42, 'no text'), (73, 'no label')]


def test_validation_rows_do_not_depend_on_the_cleaning(tmp_path):
    """Cleaning is chosen on validation, which is only fair if it is the same rows."""
    path = some_file(tmp_path)
    one, two = (prepare(settings(tmp_path, path, lowercase=x, tokenizer=y)) for x, y in ((True, 'bpe300'), (False, 'bpe290')))
    assert one != two and (Split(one, 'val').rows == Split(two, 'val').rows).all()


def test_a_test_file_is_the_test_split(tmp_path):
    """Then nothing is carved out of train, and a label that train never saw cannot be tested."""
    path = some_file(tmp_path)
    test = write_csv(tmp_path / 'test.csv', [('new text', 'bad'), ('odd', 'furious'), texts(1, 'good')[0]])
    folder = prepare(settings(tmp_path, path, test_file=test))
    report = read_json(folder, 'report.json')
    assert report['rows'] == {'train': 90, 'val': 10, 'test': 2} and report['test_texts_in_train'] == 1
    assert list(Split(folder, 'test').rows) == [0, 2] and decoded(folder, Split(folder, 'test'))[0] == 'new text'
    assert rejected(folder) == [(3, "label 'furious' is unknown to the training file")]
    assert prepare(settings(tmp_path, path, test_file=test, test_fraction=0.3)) == folder


def test_no_validation_split_is_an_error_when_opened(tmp_path):
    """val_fraction=0 is allowed; who then opens the split must not read the training rows instead."""
    folder = prepare(settings(tmp_path, some_file(tmp_path), val_fraction=0.0))
    assert set(read_json(folder, 'meta.json')['rows']) == {'train', 'test'}
    with pytest.raises(ValueError, match='val'):
        Split(folder, 'val')


# -----------------------------------------------------------------------------
# reading


def good_rows(path):
    return [row for _, row, reason in read_rows(str(path)) if not reason]


def bad_rows(path):
    return [(line, reason) for line, _, reason in read_rows(str(path)) if reason]


def test_a_broken_row_costs_itself_only(tmp_path):
    """An open quote swallows the rest of the file in most readers, and a bad byte stops them."""
    path = tmp_path / 'bad.csv'
    lines = ['body,mood', 'one,a', '"open,b', 'two,a', '"three ""q""\nlines",b', 'four,a,more', '"x"y,a', 'nul\0,a', 'latin,a']
    raw = '\n'.join([*lines, 'five,b', '', '"six, 6",a', '"end']).encode().replace(b'latin', b'caf\xe9')
    path.write_bytes(raw)
    assert [row['body'] for row in good_rows(path)] == ['one', 'two', 'three "q"\nlines', 'five', 'six, 6']
    broken = dict(bad_rows(path))
    assert list(broken) == [3, 7, 8, 9, 10, 14]
    assert all(broken[line].startswith('broken quoting: ') for line in (3, 8, 14))
    assert [broken[line] for line in (7, 9, 10)] == ['3 fields, the header has 2', 'NUL byte', 'not UTF-8']
    folder = prepare(settings(tmp_path, path, val_fraction=0.0, test_fraction=0.0))
    assert [line for line, _ in rejected(folder)] == list(broken) and read_json(folder, 'report.json')['rejected'] == 6
    assert sorted(Split(folder, 'train').rows) == [0, 2, 3, 8, 9]


def test_of_two_columns_of_one_name_the_first_is_meant(tmp_path):
    """Blanks around a name do not make it another: the label was read from the second."""
    (tmp_path / 'x.csv').write_text('body,mood, mood\nfine,a,b\n')
    assert good_rows(tmp_path / 'x.csv') == [{'body': 'fine', 'mood': 'a', 'mood.2': 'b'}]


def test_a_first_row_without_a_label_costs_itself_only(tmp_path):
    """A JSONL's rows may differ; the file was refused."""
    rows = [{'body': 'x'}, *({'body': f'text {i}', 'mood': 'ab'[i % 2]} for i in range(40))]
    (tmp_path / 'x.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    folder = prepare(settings(tmp_path, tmp_path / 'x.jsonl'))
    assert rejected(folder) == [(1, 'no label')]


def test_many_open_quotes_take_no_time(tmp_path):
    """Giving swallowed rows back must not make a file of broken rows quadratic without bound."""
    path = tmp_path / 'bad.csv'
    path.write_text('body,mood\n' + '"open,a\n' * 3000 + 'fine,b\n' * 2000)
    assert len(good_rows(path)) == 2000 and len(bad_rows(path)) == 3000


@pytest.mark.parametrize('end', ['\n', '\r\n'])
@pytest.mark.parametrize('bom', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_spreadsheets_are_read(tmp_path, end, bom, delimiter):
    """Excel writes a byte order mark, CRLF and, in half of Europe, semicolons; others name tabs .csv."""
    lines = ['body;mood;n', '"two; or\n\nthree, lines";a;1', 'plain;b;2', '"quote ""d""";a;', 'last;é;3']
    text = end.join(line.replace(';', delimiter) for line in lines)
    (tmp_path / 'x.csv').write_bytes(bom + text.encode())
    rows = good_rows(tmp_path / 'x.csv')
    assert [list(row) for row in rows] == [['body', 'mood', 'n']] * 4
    assert rows[0] == {'body': f'two{delimiter} or\n\nthree, lines', 'mood': 'a', 'n': '1'}
    assert [row['mood'] for row in rows] == ['a', 'b', 'a', 'é'] and rows[2] == {'body': 'quote "d"', 'mood': 'a', 'n': ''}


def test_a_megabyte_in_a_field(tmp_path):
    """Python's csv stops at 131,072 characters."""
    for name, long in (('a.csv', 'word ' * 250_000), ('b.csv', 'say "x"\n' * 150_000)):
        write_csv(tmp_path / name, [(long, 'a'), ('short', 'b')])
        assert [row['body'] for row in good_rows(tmp_path / name)] == [long, 'short']


def test_tsv_knows_no_quotes(tmp_path):
    """SST-2 is full of single quote signs; a CSV reader joins hundreds of its rows into one."""
    (tmp_path / 'x.tsv').write_text('body\tmood\n"open\ta\nit \'s "fine" , really\tb\nthree\ta\tb\n\tb\n')
    assert [row['body'] for row in good_rows(tmp_path / 'x.tsv')] == ['"open', 'it \'s "fine" , really', '']
    assert bad_rows(tmp_path / 'x.tsv') == [(4, '3 fields, the header has 2')]
    (tmp_path / 'x.tsv').write_text('body, as said, or so\tmood\nfine\tb\n')
    assert good_rows(tmp_path / 'x.tsv') == [{'body, as said, or so': 'fine', 'mood': 'b'}], 'nor commas'


def test_jsonl_is_read(tmp_path):
    """Numbers, nulls and missing keys are ordinary there; a blank last line is no broken row."""
    lines = [
        '{"body": "a\\n\\"b\\"", "mood": 1}',
        '{"mood": 0, "body": "é", "more": 2}',
        '{"body": null}',
        '[1]',
        '{"body"',
        '',
    ]
    lines += ['{"body": "\\ud800", "mood": 1}', '[' * 100_000, '{"mood": true, "body": "c"}', '']
    (tmp_path / 'x.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    expected = [('a\n"b"', '1'), ('é', '0'), ('', ''), ('c', 'True')]
    assert [(row['body'], row['mood']) for row in good_rows(tmp_path / 'x.jsonl')] == expected
    assert [(line, reason) for line, reason in bad_rows(tmp_path / 'x.jsonl')] == [
        (4, 'not a JSON object'),
        (5, 'not a JSON object'),
        (7, 'not UTF-8'),
        (8, 'not a JSON object'),
    ]


def test_columns_of_one_name_and_keys_that_come_late_are_kept(tmp_path):
    """The last of two columns named text was read, and the first was gone; so was what the first line of a JSONL lacks."""
    (tmp_path / 'x.csv').write_text('text,id,text\nfirst,1,second\n')
    assert [row for _, row, _ in read_rows(f'{tmp_path}/x.csv')] == [{'text': 'first', 'id': '1', 'text.2': 'second'}]
    (tmp_path / 'x.jsonl').write_text('{"text": "a"}\n{"text": "b", "more": 1}\n[1]\n')
    *rows, (_, _, why) = read_rows(f'{tmp_path}/x.jsonl')
    assert [row for _, row, _ in rows] == [{'text': 'a'}, {'text': 'b', 'more': '1'}] and why == 'not a JSON object'


# -----------------------------------------------------------------------------
# what the user can mend


def test_a_test_file_of_no_use_is_no_test_file_left_out(tmp_path):
    """Else a run ends without a test, and without a word."""
    (tmp_path / 'test.csv').write_text('body,mood\nfine,splendid\n')
    with pytest.raises(ValueError, match='test.csv: none of its rows can be used.*splendid.*unknown'):
        prepare(settings(tmp_path, some_file(tmp_path), test_file=f'{tmp_path}/test.csv'))


@pytest.mark.parametrize(
    'change, said',
    [
        ({'text_column': 'bdy'}, "no column 'bdy'; set --text_column to one of body, mood"),
        ({'label_column': ''}, "no column ''; set --label_column to one of body, mood"),
        ({'label_column': 'body'}, 'is --label_column=body right?'),
        ({'dataset': 'nowhere.csv'}, 'no file nowhere.csv'),
        ({'dataset': 'imdb'}, "'imdb' is neither one of customer_service, demo, sst2"),
        ({'test_file': 'nowhere.csv'}, 'no file nowhere.csv'),
        ({'val_fraction': 0.6, 'test_fraction': 0.5}, 'val_fraction'),
        ({'tokenizer': 'bpe99'}, 'bpe99'),
        ({'tokenizer': 'nothing'}, 'nothing'),
    ],
)
def test_a_mistake_is_named(tmp_path, change, said):
    """One line with what is wrong and what there is instead, before the long work begins or any folder is left."""
    with pytest.raises(ValueError) as e:
        prepare(settings(tmp_path, some_file(tmp_path)) | change)
    assert said in str(e.value) and '\n' not in str(e.value)
    assert not list(tmp_path.glob('data/*/*'))


def test_a_misspelt_speaker_is_an_error(tmp_path):
    """Every text would silently be kept uncleaned."""
    path = write_csv(tmp_path / 'x.csv', [(f'Customer: {text}', mood) for text, mood in texts(9, 'a') + texts(9, 'b')])
    with pytest.raises(ValueError, match='speakers=costumer'):
        prepare(settings(tmp_path, path, speakers='costumer'))


def test_a_file_that_is_not_utf8_says_so(tmp_path):
    """A spreadsheet saved as "Unicode text" is UTF-16: no row of it can be used."""
    (tmp_path / 'x.csv').write_bytes('body,mood\none,a\ntwo,b\n'.encode('utf-16'))
    with pytest.raises(ValueError, match='rejected; mend them, the first in line 2 of .*x.csv: not UTF-8; is'):
        prepare(settings(tmp_path, tmp_path / 'x.csv'))


def test_strict_stops(tmp_path):
    """Also where the same data was prepared before without it."""
    path = write_csv(tmp_path / 'mine.csv', texts(20, 'a') + [('', 'a')] + texts(20, 'b'))
    for _ in range(2):
        with pytest.raises(ValueError, match='strict'):
            prepare(settings(tmp_path, path, strict=True))
        prepare(settings(tmp_path, path))
    assert prepare(settings(tmp_path, some_file(tmp_path), strict=True))


def test_numeric_labels_are_sorted_as_numbers(tmp_path):
    """10 stars after 9, in every table and confusion matrix."""
    rows = [row for label in ('10', '9', '-1', '1.5', '2') for row in texts(6, label)]
    folder = prepare(settings(tmp_path, write_csv(tmp_path / 'x.csv', rows)))
    assert read_json(folder, 'meta.json')['labels'] == ['-1', '1.5', '2', '9', '10']


# -----------------------------------------------------------------------------
# the prepared folder


def test_other_settings_lie_side_by_side(tmp_path, capsys):
    """A run never overwrites the data of another; the same settings find what is there."""
    path = some_file(tmp_path)
    changes = (
        {},
        {'lowercase': False},
        {'tokenizer': 'bpe270'},
        {'split_seed': 1},
        {'val_fraction': 0.2},
        {'speakers': 'agent'},
    )
    folders = [prepare(settings(tmp_path, path, **change)) for change in changes]
    assert len(set(folders)) == len(changes) == capsys.readouterr().err.count('preparing')
    before = {f: os.stat(f).st_mtime_ns for folder in folders for f in Path(folder).iterdir()}
    assert [prepare(settings(tmp_path, path, **change)) for change in changes] == folders
    assert before == {f: os.stat(f).st_mtime_ns for folder in folders for f in Path(folder).iterdir()}
    assert 'preparing' not in capsys.readouterr().err
    write_csv(path, texts(50, 'good') + texts(50, 'bad'))
    assert prepare(settings(tmp_path, path)) not in folders  # other bytes under the old name


def test_preparing_twice_gives_the_same_bytes(tmp_path):
    """Else no figure can be reproduced on another machine."""
    path = some_file(tmp_path)
    one, two = (Path(prepare(settings(tmp_path, path, data_dir=str(tmp_path / name)))) for name in 'ab')
    files = sorted(f.name for f in one.iterdir())
    assert files == sorted(f.name for f in two.iterdir()) and len(files) == 3 * 4 + 4
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)


def test_nothing_is_pickled(tmp_path):
    """A data folder from a stranger must not run code; numbers are flat, the rest is JSON and CSV."""
    folder = Path(prepare(settings(tmp_path, some_file(tmp_path))))
    for f in folder.iterdir():
        assert f.suffix in ('.json', '.csv', '.tok', '.off', '.lab', '.row')
        if f.suffix == '.json':
            json.loads(f.read_text(encoding='utf-8'))
    n = {f.name: f.stat().st_size for f in folder.iterdir()}
    meta = read_json(str(folder), 'meta.json')
    for split, rows in meta['rows'].items():
        expected = 2 * meta['tokens'][split], 8 * (rows + 1), 2 * rows, 8 * rows
        assert tuple(n[f'{split}.{kind}'] for kind in ('tok', 'off', 'lab', 'row')) == expected


@pytest.mark.parametrize('name', ['train.tok', 'train.off', 'val.lab', 'test.row', 'meta.json'])
@pytest.mark.parametrize('damage', ['truncated', 'missing'])
def test_damaged_files_are_named(tmp_path, name, damage):
    """A half-copied folder must not train on garbage, nor end in a traceback from numpy."""
    folder = prepare(settings(tmp_path, some_file(tmp_path)))
    path = Path(folder, name)
    path.write_bytes(path.read_bytes()[:-2]) if damage == 'truncated' else path.unlink()
    with pytest.raises(ValueError) as e:
        Split(folder, name.split('.')[0] if name != 'meta.json' else 'train')
    assert name in str(e.value) and f'delete {folder} and prepare again' in str(e.value)


def test_a_killed_preparation_leaves_no_folder_that_looks_complete(tmp_path):
    """kill -9 at the worst moment, all files but the last written: the next run prepares anew."""
    s = settings(tmp_path, some_file(tmp_path))
    code = f'import os, metrics, prepare\nmetrics.describe = lambda counts: os._exit(9)\nprepare.prepare({s!r})'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True).returncode == 9
    assert not list(Path(s['data_dir']).glob('*/bpe300-????????/meta.json'))
    assert len(Split(prepare(s), 'train')) == 80


def test_two_runs_may_prepare_at_once(tmp_path, monkeypatch):
    """Three seeds started together on new data: the slower ones take what the first has made."""
    s, build = settings(tmp_path, some_file(tmp_path)), p.build

    def slow(*args):
        monkeypatch.setattr(p, 'build', build)
        build(*args)
        prepare(s)

    monkeypatch.setattr(p, 'build', slow)
    folder = Path(prepare(s))
    assert len(Split(str(folder), 'train')) == 80 and os.listdir(folder.parent) == [folder.name]


def test_a_failed_preparation_cleans_up(tmp_path):
    """What a wrong column leaves behind would fill the disk of who tries three times."""
    with pytest.raises(ValueError):
        prepare(settings(tmp_path, some_file(tmp_path), label_column='x'))
    assert not list(tmp_path.glob('data/*/*'))


def test_a_failed_preparation_leaves_no_thread_behind(tmp_path, monkeypatch):
    """Encoding runs beside the reading; were it still writing when the folder is removed, a part of that would stay."""
    done = []

    def encode_batch(batch):
        time.sleep(0.02)
        done.extend(batch)
        return [[1]] * len(batch)

    slow = SimpleNamespace(kind='json', name='slow', sha256='', n_vocab=2, encode_batch=encode_batch)
    monkeypatch.setattr(p, 'get_tokenizer', lambda name, texts: slow)
    monkeypatch.setattr(p, 'BATCH', 10)
    with pytest.raises(ValueError, match='1 labels'):
        prepare(settings(tmp_path, write_csv(tmp_path / 'mine.csv', texts(100, 'good'))))
    assert len(done) == 100 and os.listdir(tmp_path / 'data' / 'mine') == []


def test_memmaps_decode_to_the_cleaned_texts(tmp_path):
    """The one test that sees offsets, order, dtype and tokens at once."""
    rows = [(f'<b>Text</b> Nr. {i} 映画 😀 é ' * (i % 7 + 1), 'ab'[i % 2]) for i in range(3000)]  # more than a batch
    folder = prepare(settings(tmp_path, write_csv(tmp_path / 'x.csv', rows)))
    for split in splits(folder).values():
        assert decoded(folder, split) == [clean(rows[i][0], **ALL) for i in split.rows]
        assert split.lengths.tolist() == [len(ids) for ids in split]
    short = Split(folder, 'val', 10, 'both')
    assert short.lengths.max() == 10 == max(map(len, short))


@pytest.mark.parametrize('learned', [True, False])
def test_neither_batches_nor_line_ends_matter(tmp_path, monkeypatch, learned):
    """Texts are encoded a batch at a time while the next are read, then dealt to their splits: nothing may shift."""
    odd = ['(\r)', '[\x85]\u2028{', 'two\nlines']
    path = write_csv(tmp_path / 'mine.csv', texts(60, 'good') + [(text, 'good') for text in odd] + texts(30, 'bad'))
    if not learned:  # known before the first row is read; ids are characters
        tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is not installed')
        letters = sorted({*'abcdefghijklmnopqrstuvwxyz0123456789 ', *''.join(odd)})
        own = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
        own.add_special_tokens(['<|endoftext|>'])
        own.decoder = tokenizers.decoders.Fuse()
        own.save(str(tmp_path / 'tokenizer.json'))
    kept = settings(tmp_path, path, tokenizer='bpe300' if learned else str(tmp_path / 'tokenizer.json'), speakers='nobody')
    whole = prepare(kept)
    found = {split: decoded(whole, Split(whole, split)) for split in splits(whole)}
    with open(path, newline='', encoding='utf-8') as f:
        rows = [text for text, _ in csv.reader(f)][1:]
    assert set(odd) <= set(rows)
    for split, some in found.items():
        assert some == [rows[i] for i in Split(whole, split).rows], split
    monkeypatch.setattr(p, 'BATCH', 3)
    small = prepare(kept | dict(data_dir=str(tmp_path / 'other')))
    for name in os.listdir(whole):
        assert Path(whole, name).read_bytes() == Path(small, name).read_bytes(), name


def test_bpe_is_learned_on_the_training_split_only(tmp_path):
    """A vocabulary that knows the test words is a leak that no accuracy shows."""
    rows = texts(60, 'good') + texts(40, 'bad')
    plain = Split(prepare(settings(tmp_path, write_csv(tmp_path / 'x.csv', rows))), 'train')
    apart = set(range(100)) - set(plain.rows.tolist())
    rows = [(text + ' zyzzyvaqux' * 50 if i in apart else text, mood) for i, (text, mood) in enumerate(rows)]
    folder = prepare(settings(tmp_path, write_csv(tmp_path / 'y.csv', rows), tokenizer='bpe400'))
    assert set(Split(folder, 'train').rows) == set(plain.rows)
    test = write_csv(tmp_path / 'test.csv', [('zyzzyvaqux ' * 50, 'good')])
    other = prepare(settings(tmp_path, tmp_path / 'x.csv', tokenizer='bpe400', test_file=test))
    for each in (folder, other):
        tokenizer = load_tokenizer(read_json(each, 'tokenizer_state.json'))
        assert tokenizer.n_vocab > 300 and len(tokenizer.encode('zyzzyvaqux')) == len('zyzzyvaqux') + 1


@pytest.mark.parametrize('size', [2, 3, 4, 7, 8])
def test_truncation_keeps_the_special_tokens(size):
    """A GPT's head reads the last token, BERT's the first: cut off, the model judges from a word."""
    ids = np.array([101, 1, 2, 3, 4, 5, 6, 102], dtype=np.uint16)
    for keep in ('first', 'last', 'both'):
        cut = truncate(ids, size, keep, 1, 1)
        assert len(cut) == size and cut[0] == 101 and cut[-1] == 102 and cut.dtype == np.uint16
        middle = [int(x) for x in cut[1:-1]]
        assert middle == {'first': list(range(1, size - 1)), 'last': list(range(9 - size, 7))}.get(keep, middle)
        assert middle == sorted(set(middle))
    gpt = [1, 2, 3, 4, 5, 9]
    assert [truncate(gpt, 3, keep, 0, 1).tolist() for keep in ('first', 'last', 'both')] == [[1, 2, 9], [4, 5, 9], [1, 5, 9]]


def test_a_vocabulary_too_large_for_uint16_is_refused(tmp_path, monkeypatch):
    """Ids above 65,535 would wrap around in silence."""

    class Large:
        name, kind, sha256, n_vocab = 'large', 'json', '', 250_000

    monkeypatch.setattr(p, 'get_tokenizer', lambda *_: Large)
    with pytest.raises(ValueError, match='250,000'):
        prepare(settings(tmp_path, some_file(tmp_path), tokenizer='large'))


# -----------------------------------------------------------------------------
# the report


def test_chi_square_of_the_worked_example():
    """By hand: every cell expects 15 and misses it by 5, so chi2 = 4 * 25 / 15."""
    out = describe(Counter({('a', 'x'): 10, ('a', 'y'): 20, ('b', 'x'): 20, ('b', 'y'): 10}))
    assert (round(out['chi2'], 3), out['df'], round(out['p'], 4)) == (6.667, 1, 0.0098)


def test_a_column_that_tells_the_label_is_found_and_an_id_is_not():
    """In customer_service each of 109 topics has one label: who does not know that takes topics for moods."""

    def guess(*rows):
        return describe(Counter(rows))['guess']

    assert guess(*[('a', 'x')] * 10, *[('a', 'y')] * 20, *[('b', 'x')] * 20, *[('b', 'y')] * 10) == 40 / 60
    assert guess(*[(str(i), 'xy'[i % 2]) for i in range(100)]) == 0, 'an id is right only about itself'
    assert guess(*[('a', 'x')] * 5, *[('b', 'y')] * 4, ('c', 'y')) == 0.9
    assert guess(('a', 'x'), ('a', 'y'), ('b', 'x'), ('b', 'y')) == 0
    assert guess(*[('a', 'x')] * 2, ('a', 'y'), ('a', 'z')) == pytest.approx(2 / 3 / 4), 'each x sees three alike'
    assert guess(('a', 'x'), ('a', 'x'), ('a', 'y')) == pytest.approx(1 / 3), 'each x sees an x and a y: right half the time'
    if RAW and os.path.exists(path := os.path.join(RAW, 'customer_service', 'train.csv')):
        found = [(row['issue_sub_category'], row['customer_sentiment']) for _, row, _ in read_rows(path)]
        assert len({value for value, _ in found}) == 109 and guess(*found) == 1


def test_a_rare_label_is_no_reason_to_suspect_a_column(tmp_path, capsys):
    """Where 99 rows of 100 have one label any column guesses so many right: only what knows the hundredth tells the label."""
    moods = ['b' if i % 100 == 0 else 'a' for i in range(1000)]
    rows = [(f'text number {i}', mood, mood + 'x', i % 3) for i, mood in enumerate(moods)]
    path = write_csv(tmp_path / 'x.csv', rows, ('body', 'mood', 'telling', 'shop'))
    report = read_json(prepare(settings(tmp_path, path)), 'report.json')
    assert report['columns']['shop']['guess'] == 0.99
    show_data(report | {'tokenizer': '', 'share_truncated': 0.0})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if 'alone tells' in line] == ['telling']


def test_chi_square_equals_scipys():
    """Down to p values that float32 would call 0."""
    stats = pytest.importorskip('scipy.stats')
    rng = np.random.default_rng(0)
    for scale in (3, 30, 3000):
        table = rng.integers(1, scale + 1, (5, 3))
        table[0, 0] = 0
        out = describe(Counter({(f'v{i}', j): int(table[i, j]) for i in range(5) for j in range(3) if table[i, j]}))
        chi2, prob, df, _ = stats.chi2_contingency(table, correction=False)
        assert out['df'] == df and out['chi2'] == pytest.approx(chi2) and out['p'] == pytest.approx(prob, rel=1e-6)


def test_report_counts_what_is_there(tmp_path):
    """It is read before training, when a mistake in the data is still cheap."""
    rows = [(text, mood, 'x' if mood == 'a' else '', i) for i, (text, mood) in enumerate(texts(1200, 'a') + texts(40, 'b'))]
    rows += [rows[0], rows[1], (rows[2][0], 'b', '', -1)]
    path = write_csv(tmp_path / 'x.csv', rows, ('body', 'mood', 'area', 'id'))
    folder = prepare(settings(tmp_path, path, test_fraction=0.0))
    report = read_json(folder, 'report.json')
    assert report['repeated_rows'] == 3 and report['texts_under_several_labels'] == 1 and report['emptied'] == 0
    assert list(report['columns']) == ['body', 'area', 'id']
    area, ids = report['columns']['area'], report['columns']['id']
    assert area['missing'] == 41 and area['distinct'] == 2 and area['p'] < 1e-9
    assert ids == {'missing': 0, 'distinct': None}
    for split, counts in report['labels'].items():
        assert sum(counts.values()) == report['rows'][split] == len(Split(folder, split))
    lengths = Split(folder, 'train').lengths
    assert report['lengths']['a'][3] <= lengths.max()
    assert report['example']['text'] == rows[report['example']['row']][0]


# -----------------------------------------------------------------------------
# the command


def run(*args, **env):
    command = [sys.executable, 'prepare.py', *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding='utf-8', env=os.environ | env)


def test_the_last_line_is_json(tmp_path):
    """Scripts read it; a terminal that knows no emoji must not break it."""
    path = write_csv(tmp_path / 'x.csv', [(f'{text} 😀', mood) for text, mood in texts(30, 'a') + texts(30, 'b')])
    columns = '--text_column=body', '--label_column=mood', '--tokenizer=bpe300', f'--data_dir={tmp_path}'
    done = run(f'--dataset={path}', *columns, PYTHONIOENCODING='ascii')
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert {'dataset', 'tokenizer', 'rows', 'rejected', 'labels', 'tokens', 'share_truncated'} <= set(last)
    assert last['rows'] == {'train': 48, 'val': 6, 'test': 6} and last['labels']['val'] == {'a': 3, 'b': 3}
    again = run(f'--dataset={path}', *columns, '--block_size=3', PYTHONIOENCODING='ascii')
    assert again.stderr == '' and json.loads(again.stdout.splitlines()[-1])['share_truncated'] == 1.0


@pytest.mark.parametrize('wrong', [['--dataset=nowhere.csv'], ['--text_column=x'], ['--datset=x'], ['--label_column=body']])
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, wrong):
    """No traceback for what the user can mend."""
    path = some_file(tmp_path)
    done = run(f'--dataset={path}', '--text_column=body', '--label_column=mood', f'--data_dir={tmp_path}', *wrong)
    lines = [line for line in done.stderr.splitlines() if not line.startswith('preparing ')]
    assert done.returncode == 2 and len(lines) == 1 and done.stdout == '', done.stderr


# -----------------------------------------------------------------------------
# the real data


@real
def test_customer_service_is_what_the_first_report_saw(tmp_path):
    """970 and 30 rows, and its finding: the area goes with the sentiment, category and complexity do not."""
    names = dict(text_column='', label_column='', speakers='customer', tokenizer='bpe2048')
    folder = prepare(settings(tmp_path, 'customer_service', **names))
    report = read_json(folder, 'report.json')
    assert report['rows']['train'] + report['rows']['val'] == 970 and report['rows']['test'] == 30
    assert report['emptied'] == 3 and report['repeated_rows'] == 2 and report['rejected'] == 0
    columns = report['columns']
    assert columns['issue_area']['p'] < 0.001
    assert min(columns['product_category']['p'], columns['issue_complexity']['p']) > 0.05
    assert all(column['missing'] == 0 for column in columns.values()) and len(columns) == 10
    assert not any('supervisor:' in text or 'agent:' in text for text in decoded(folder, Split(folder, 'test')))


@real
def test_sst2_is_read_whole():
    """67,349 and 872 rows; GLUE's files are full of lone quote signs."""
    for name, n in (('train.tsv', 67349), ('dev.tsv', 872)):
        reasons = Counter(reason for _, _, reason in read_rows(f'{RAW}/sst2/{name}'))
        assert reasons == {'': n}


def test_phrases_follow_their_sentences():
    """SST-2's rows are phrases of one another; only what no training text contains may validate."""
    texts = ['a fine film of note', 'a fine film', 'fine', 'this fine mess', 'of note', 'of note', 'fine films', 'never seen']
    part = follow(texts, np.array([1, 0, 1, 0, 0, 1, 1, 1]))
    assert part.tolist() == [1, 1, 0, 0, 1, 1, 1, 1]  # 'fine' lies in a training text too; 'fine films' in none, words count
    assert follow(['fine', 'a fine film', 'a fine film of note'], np.array([0, 2, 1])).tolist() == [1, 1, 1], 'the longest says'
    rng = np.random.default_rng(0)
    texts = sorted({' '.join(rng.choice(list('abcdef'), rng.integers(1, 7))) for _ in range(400)})
    part = dict(zip((f' {text} ' for text in texts), follow(texts, rng.choice(3, len(texts), p=(0.6, 0.3, 0.1)))))
    within = [(part[a], part[b]) for a in part for b in part if a in b and a != b]
    assert set(within) == {(0, 0), (0, 1), (1, 1), (0, 2), (2, 2)}, 'with what it lies within, or in training'
