# python -m pytest tests/test_prepare.py
"""From a raw file to a prepared folder: no row is lost in silence, and every mistake is named."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, run

import prepare
from configurator import declared_settings
from nanosentiment.cleaning import clean
from nanosentiment.memmaps import Split, read_meta
from nanosentiment.tokenizer import load_tokenizer

RAW = os.environ.get('NANOSENTIMENT_RAW')
WORDS = ['good', 'bad', 'fine', 'slow', 'fast', 'late', 'kind', 'rude', 'broken', 'happy']


def make_rows(n, label):
    """n different texts with a label."""
    rows = []
    for i in range(n):
        first_word = WORDS[i % 10]
        second_word = WORDS[i // 10 % 10]
        rows.append((f'{first_word} {second_word} number {label} {i}', label))
    return rows


def write_csv(path, rows, header=('body', 'mood')):
    with open(path, 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([header, *rows])
    return str(path)


def write_hundred_rows(path):
    rows = make_rows(60, 'good') + make_rows(30, 'bad') + make_rows(10, 'meh')
    return write_csv(path, rows)


def make_settings(tmp_path, dataset, **changes):
    """prepare.py's own settings for a file written by write_csv, with changes."""
    settings = declared_settings(vars(prepare)) | {
        'dataset': str(dataset),
        'text_column': 'body',
        'label_column': 'mood',
        'data_dir': str(tmp_path / 'data'),
        'tokenizer': 'bpe300',
    }
    return settings | changes


@pytest.fixture
def prepare_csv(tmp_path):
    """A function: rows or a file's path, changed settings -> the prepared folder."""

    def prepare_rows(rows, **changes):
        path = rows
        if not isinstance(rows, (str, Path)):
            path = write_csv(tmp_path / 'mine.csv', rows)
        return prepare.prepare(make_settings(tmp_path, path, **changes))

    return prepare_rows


def decode(folder, split_name):
    """The texts of a split, from their ids."""
    tokenizer = load_tokenizer(read_meta(folder, 'tokenizer_state.json'))
    return [tokenizer.decode(ids) for ids in Split(folder, split_name)]


def read_rejected(folder):
    with open(f'{folder}/rejected.csv', newline='', encoding='utf-8') as f:
        return [(int(row['line']), row['reason']) for row in csv.DictReader(f)]


# -----------------------------------------------------------------------------
# rows


def test_every_row_is_in_exactly_one_split_and_keeps_its_number(prepare_csv):
    """The error report prints the raw row of a mistake: a number off by one shows another text."""
    rows = make_rows(40, 'good') + [('', 'good')]
    rows += make_rows(30, 'bad') + [('no label', '')]
    rows += make_rows(9, 'meh')
    folder = prepare_csv(rows)

    rows_read = []
    for name in ('train', 'val', 'test'):
        split = Split(folder, name)
        for text, label, row in zip(decode(folder, name), split.labels, split.rows):
            assert rows[row] == (text, split.meta['labels'][label])
            rows_read.append(int(row))
    assert sorted(rows_read) == [i for i in range(len(rows)) if i not in (40, 71)]
    assert read_rejected(folder) == [(42, 'no text'), (73, 'no label')]


def test_rejected_rows_are_counted_and_keep_their_numbers(tmp_path, prepare_csv):
    path = tmp_path / 'bad.csv'
    path.write_text('body,mood\none,a\n"open,b\ntwo,a\nthree,a,more\nfour,b\n')
    folder = prepare_csv(path, val_fraction=0.0, test_fraction=0.0)
    assert [line for line, _ in read_rejected(folder)] == [3, 5]
    assert read_meta(folder, 'report.json')['rejected'] == 2
    assert Split(folder, 'train').rows.tolist() == [0, 2, 4]


def test_rows_of_a_jsonl_may_lack_a_column(tmp_path, prepare_csv):
    """Such a row is rejected, even if it is the first, and not the file."""
    rows = [{'body': 'x'}]
    rows += [{'body': f'text {i}', 'mood': 'ab'[i % 2]} for i in range(40)]
    path = tmp_path / 'x.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    folder = prepare_csv(path)
    assert read_rejected(folder) == [(1, 'no label')]


def test_memmaps_decode_to_the_cleaned_texts(prepare_csv):
    """Offsets, order, types and tokens at once, for more texts than are encoded at a time."""
    rows = []
    for i in range(3000):
        rows.append((f'<b>Text</b> Nr. {i} 映画 😀 é ' * (i % 7 + 1), 'ab'[i % 2]))
    folder = prepare_csv(rows)
    settings = Split(folder, 'train').meta['recipe']
    for name in ('train', 'val', 'test'):
        expected = [clean(rows[row][0], settings) for row in Split(folder, name).rows]
        assert decode(folder, name) == expected


def write_character_tokenizer(folder, characters):
    """tokenizer.json with a token for each character."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is missing')
    vocab = {character: i for i, character in enumerate(sorted(characters))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    tokenizer.add_special_tokens(['<|endoftext|>'])
    tokenizer.decoder = tokenizers.decoders.Fuse()
    path = str(folder / 'tokenizer.json')
    tokenizer.save(path)
    return path


@pytest.mark.parametrize('is_learned', [True, False])
def test_neither_batches_nor_line_ends_change_a_text(tmp_path, monkeypatch, is_learned):
    """Between cleaning and encoding a text is a line of a file, and must come back as it was."""
    # cleaning leaves nothing of the first two, so they stay raw
    special_texts = ['(\r)', '[\x85]\u2028{', 'two\nlines']
    rows = make_rows(60, 'good') + [(text, 'good') for text in special_texts]
    rows += make_rows(30, 'bad')
    path = write_csv(tmp_path / 'mine.csv', rows)
    tokenizer = 'bpe300'
    if not is_learned:
        characters = {character for text, _ in rows for character in text}
        tokenizer = write_character_tokenizer(tmp_path, characters)
    steps = {'lowercase': False, 'strip_brackets': True}
    settings = make_settings(tmp_path, path, tokenizer=tokenizer, **steps)

    folder = prepare.prepare(settings)
    monkeypatch.setattr(prepare, 'TEXTS_AT_A_TIME', 3)
    in_small_batches = prepare.prepare(settings | {'data_dir': str(tmp_path / 'other')})

    for name in ('train', 'val', 'test'):
        expected = [clean(rows[row][0], settings) for row in Split(folder, name).rows]
        assert decode(folder, name) == expected
    for name in os.listdir(folder):
        assert Path(folder, name).read_bytes() == Path(in_small_batches, name).read_bytes()


# -----------------------------------------------------------------------------
# splits


def test_validation_rows_do_not_depend_on_the_cleaning(tmp_path, prepare_csv):
    """Cleaning is chosen on validation data, which is only fair on the same rows."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    folder = prepare_csv(path, lowercase=True, tokenizer='bpe300')
    other = prepare_csv(path, lowercase=False, tokenizer='bpe290')
    assert folder != other
    assert np.array_equal(Split(folder, 'val').rows, Split(other, 'val').rows)


def test_a_test_file_is_the_test_split(tmp_path, prepare_csv):
    """No test rows are taken from the training file then, and unknown labels are rejected."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    known_row = make_rows(1, 'good')[0]
    test_rows = [('new text', 'bad'), ('odd', 'furious'), known_row]
    test_file = write_csv(tmp_path / 'test.csv', test_rows)

    folder = prepare_csv(path, test_file=test_file)

    report = read_meta(folder, 'report.json')
    assert report['rows'] == {'train': 90, 'val': 10, 'test': 2}
    assert report['test_texts_in_train'] == 1
    assert Split(folder, 'test').rows.tolist() == [0, 2]
    assert decode(folder, 'test')[0] == 'new text'
    assert read_rejected(folder) == [(3, "label 'furious' is unknown to the training file")]
    # test_fraction has no meaning with a test file, so it is no other data
    assert prepare_csv(path, test_file=test_file, test_fraction=0.3) == folder


def test_without_a_validation_split_there_is_none_to_open(tmp_path, prepare_csv):
    path = write_hundred_rows(tmp_path / 'mine.csv')
    folder = prepare_csv(path, val_fraction=0.0)
    assert set(read_meta(folder)['rows']) == {'train', 'test'}
    with pytest.raises(ValueError, match='val'):
        Split(folder, 'val')


@pytest.mark.parametrize('split_seed', range(4))
def test_a_label_may_be_missing_from_train(prepare_csv, split_seed):
    """Crowd labels: every text with the label c came first under another one."""
    rows = make_rows(20, 'a') + make_rows(20, 'b')
    rows += [(text, 'c') for text, _ in rows[::2]]
    folder = prepare_csv(rows, val_fraction=0.4, split_seed=split_seed)
    assert read_meta(folder, 'report.json')['texts_under_several_labels'] == 20


def test_numeric_labels_are_sorted_as_numbers(prepare_csv):
    """In every table and confusion matrix 10 stars come after 9."""
    rows = []
    for label in ('10', '9', '-1', '1.5', '2'):
        rows += make_rows(6, label)
    folder = prepare_csv(rows)
    assert read_meta(folder)['labels'] == ['-1', '1.5', '2', '9', '10']


# -----------------------------------------------------------------------------
# tokens


def test_bpe_is_learned_from_the_training_split_only(tmp_path, prepare_csv):
    """A vocabulary with words of the test texts is a leak that no accuracy shows."""
    rows = make_rows(60, 'good') + make_rows(40, 'bad')
    train_rows = set(Split(prepare_csv(rows), 'train').rows.tolist())
    rare_word = ' zyzzyvaqux' * 50
    for i, (text, label) in enumerate(rows):
        if i not in train_rows:
            rows[i] = (text + rare_word, label)
    carved_out = prepare_csv(rows, tokenizer='bpe400')
    assert set(Split(carved_out, 'train').rows.tolist()) == train_rows

    plain_rows = make_rows(60, 'good') + make_rows(40, 'bad')
    test_file = write_csv(tmp_path / 'test.csv', [(rare_word, 'good')])
    with_test_file = prepare_csv(plain_rows, tokenizer='bpe400', test_file=test_file)

    for folder in (carved_out, with_test_file):
        tokenizer = load_tokenizer(read_meta(folder, 'tokenizer_state.json'))
        assert tokenizer.n_vocab > 300
        n_letters = len('zyzzyvaqux')
        assert len(tokenizer.encode('zyzzyvaqux')) == n_letters + 1


def test_auto_is_the_default_tokenizer(tmp_path, prepare_csv):
    path = write_hundred_rows(tmp_path / 'mine.csv')
    folder = prepare_csv(path, tokenizer='auto')
    assert folder == prepare_csv(path, tokenizer='bpe2048')


def test_a_vocabulary_too_large_for_uint16_is_refused(tmp_path, monkeypatch, prepare_csv):
    """Ids above 65,535 would wrap around in silence."""
    large = SimpleNamespace(name='large', kind='json', sha256='', n_vocab=250_000)
    monkeypatch.setattr(prepare, 'get_tokenizer', lambda name, texts: large)
    with pytest.raises(ValueError, match='250,000'):
        prepare_csv(write_hundred_rows(tmp_path / 'mine.csv'), tokenizer='large')


# -----------------------------------------------------------------------------
# what the user can correct


@pytest.mark.parametrize(
    'change, message',
    [
        ({'text_column': 'bdy'}, "no column 'bdy'; set --text_column to one of body, mood"),
        ({'label_column': ''}, "no column ''; set --label_column to one of body, mood"),
        ({'label_column': 'body'}, 'is --label_column=body right?'),
        ({'dataset': 'nowhere.csv'}, 'no file nowhere.csv'),
        ({'dataset': 'imdb'}, "'imdb' is neither one of customer_service, demo, sst2"),
        ({'test_file': 'nowhere.csv'}, 'no file nowhere.csv'),
        ({'val_fraction': 0.6, 'test_fraction': 0.5}, 'set both to 0 or more, and their sum below'),
        ({'test_fraction': -0.1}, 'test_fraction -0.1'),
        ({'folds': 5, 'fold': 6}, 'fold 6 of 5 folds cannot be made; set --folds'),
        ({'folds': 1}, 'fold 0 of 1 folds cannot'),
        ({'tokenizer': 'bpe99'}, 'bpe99'),
        ({'tokenizer': 'nothing'}, 'nothing'),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, change, message):
    """And nothing is left behind, which would fill the disk of somebody who tries three times."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    with pytest.raises(ValueError) as error:
        prepare.prepare(make_settings(tmp_path, path) | change)
    assert message in str(error.value)
    assert '\n' not in str(error.value)
    assert not list(tmp_path.glob('data/*/*'))


def test_a_useless_test_file_is_an_error(tmp_path, prepare_csv):
    """Otherwise a run would end without a test, and without a word."""
    path = write_csv(tmp_path / 'mine.csv', [('', 'good'), *make_rows(9, 'good'), ('fine', 'bad')])
    test_file = write_csv(tmp_path / 'test.csv', [('fine', 'splendid')])
    message = "test.csv: none of its rows .* the first in line 2: label 'splendid'.*; correct this"
    with pytest.raises(ValueError, match=message):
        prepare_csv(path, test_file=test_file)


def test_a_wrong_text_column_of_a_jsonl_is_named(tmp_path, prepare_csv):
    """All of its rows lack the column, so none of them is the mistake."""
    rows = [{'body': text, 'mood': label} for text, label in make_rows(9, 'a') + make_rows(9, 'b')]
    path = tmp_path / 'x.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    with pytest.raises(ValueError) as error:
        prepare_csv(path, text_column='bdy')
    assert str(error.value) == (
        f'{path}: 0 labels in 0 usable rows (rejected: 18, the first in line 1: no text); '
        'are --text_column=bdy and --label_column=mood right?'
    )


def test_a_misspelt_speaker_is_an_error(prepare_csv):
    """Every text would be emptied, and therefore stay uncleaned."""
    rows = []
    for text, label in make_rows(9, 'a') + make_rows(9, 'b'):
        rows.append((f'Customer: {text}', label))
    with pytest.raises(ValueError, match='speakers=costumer'):
        prepare_csv(rows, speakers='costumer')


def test_a_file_that_is_not_utf8_is_an_error(tmp_path, prepare_csv):
    """A spreadsheet saved as "Unicode text" is UTF-16, and its first line tells."""
    path = tmp_path / 'x.csv'
    path.write_bytes('body,mood\none,a\ntwo,b\n'.encode('utf-16'))
    with pytest.raises(ValueError, match='x.csv: the header in line 1 .*not UTF-8.*; correct it'):
        prepare_csv(path)


def test_strict_makes_rejected_rows_an_error(tmp_path, prepare_csv):
    """Also when the same data has been prepared without it before."""
    path = write_csv(tmp_path / 'x.csv', make_rows(20, 'a') + [('', 'a')] + make_rows(20, 'b'))
    with pytest.raises(ValueError, match='strict'):
        prepare_csv(path, strict=True)
    prepare_csv(path, strict=False)
    with pytest.raises(ValueError, match='strict'):
        prepare_csv(path, strict=True)


def test_strict_accepts_a_file_without_rejected_rows(tmp_path, prepare_csv):
    assert prepare_csv(write_hundred_rows(tmp_path / 'mine.csv'), strict=True)


# -----------------------------------------------------------------------------
# the prepared folder


def modification_times(folders):
    times = {}
    for folder in folders:
        for path in Path(folder).iterdir():
            times[path] = path.stat().st_mtime_ns
    return times


def test_other_settings_get_another_folder_and_equal_ones_the_same(tmp_path, prepare_csv, capsys):
    """A run never overwrites the data of another."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    changes = [
        {},
        {'lowercase': False},
        {'tokenizer': 'bpe270'},
        {'split_seed': 1},
        {'val_fraction': 0.2},
        {'speakers': 'agent'},
        {'folds': 5, 'fold': 2},
    ]
    folders = [prepare_csv(path, **change) for change in changes]
    assert len(set(folders)) == len(changes)
    assert capsys.readouterr().err.count('preparing') == len(changes)

    times = modification_times(folders)
    assert [prepare_csv(path, **change) for change in changes] == folders
    assert modification_times(folders) == times
    assert 'preparing' not in capsys.readouterr().err


def test_a_changed_file_is_prepared_anew(prepare_csv):
    folder = prepare_csv(make_rows(60, 'good') + make_rows(30, 'bad'))
    other = prepare_csv(make_rows(50, 'good') + make_rows(50, 'bad'))
    assert folder != other


def test_preparing_twice_gives_the_same_bytes(tmp_path, prepare_csv):
    """Otherwise no figure could be reproduced on another machine."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    first = Path(prepare_csv(path, data_dir=str(tmp_path / 'a')))
    second = Path(prepare_csv(path, data_dir=str(tmp_path / 'b')))

    names = sorted(os.listdir(first))
    assert names == sorted(os.listdir(second))
    assert len(names) == 3 * 4 + 4
    for name in names:
        assert Path(name).suffix in ('.json', '.csv', '.tok', '.off', '.lab', '.row')
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_folder_is_named_after_the_recipe_of_format_2(prepare_csv):
    """
    Data that older versions prepared must be found again.

    If this name changes so do the names of all prepared folders, and format must be raised.
    """
    folder = prepare_csv(make_rows(60, 'good') + make_rows(30, 'bad'))
    assert os.path.basename(folder) == 'bpe300-7f0eb01b'


def test_a_killed_preparation_leaves_no_folder_that_looks_complete(tmp_path):
    """Killed while the report is made, when all files of the splits are written."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    settings = make_settings(tmp_path, path)
    code = (
        'import os, prepare\n'
        'prepare.describe_column = lambda counts: os._exit(9)\n'
        f'prepare.prepare({settings!r})'
    )
    killed = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True)
    assert killed.returncode == 9
    assert not list(tmp_path.glob('data/*/bpe300-????????/meta.json'))
    assert len(Split(prepare.prepare(settings), 'train')) == 80


def test_two_processes_may_prepare_the_same_data(tmp_path, monkeypatch):
    """Of several seeds started together, the slower ones take what the first has made."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    settings = make_settings(tmp_path, path)
    build = prepare.build

    def build_slowly(*args):
        monkeypatch.setattr(prepare, 'build', build)
        build(*args)
        prepare.prepare(settings)  # the faster process

    monkeypatch.setattr(prepare, 'build', build_slowly)
    folder = prepare.prepare(settings)
    assert len(Split(folder, 'train')) == 80
    assert os.listdir(tmp_path / 'data' / 'mine') == [os.path.basename(folder)]


def test_an_incomplete_folder_in_the_way_is_named(tmp_path, prepare_csv):
    """Somebody may have deleted its meta.json; a traceback of os.rename would not help."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    folder = prepare_csv(path)
    os.remove(f'{folder}/meta.json')
    with pytest.raises(ValueError, match=f'; delete {folder} and prepare again'):
        prepare_csv(path)


def test_a_failed_preparation_leaves_nothing(tmp_path, monkeypatch, prepare_csv):
    """Otherwise every attempt would leave a copy of all texts on a disk that may be full."""

    def fail(temp, tokenizer):
        raise OSError('the disk is full')

    monkeypatch.setattr(prepare, 'encode_texts', fail)
    with pytest.raises(OSError, match='the disk is full'):
        prepare_csv(write_hundred_rows(tmp_path / 'mine.csv'))
    assert os.listdir(tmp_path / 'data' / 'mine') == []


def test_folds_may_be_missing_from_the_settings(tmp_path):
    """Checkpoints from before there were folds do not have them."""
    settings = make_settings(tmp_path, write_hundred_rows(tmp_path / 'mine.csv'))
    without = {name: settings[name] for name in settings if name not in ('folds', 'fold')}
    assert prepare.prepare(without) == prepare.prepare(settings)


# -----------------------------------------------------------------------------
# the report


def test_the_report_counts_what_is_there(tmp_path, prepare_csv):
    """It is read before training, when a mistake in the data is still cheap."""
    rows = []
    for i, (text, mood) in enumerate(make_rows(1200, 'a') + make_rows(40, 'b')):
        area = 'x' if mood == 'a' else ''
        sparse_id = i if i % 15 else ''
        rows.append((text, mood, area, i, sparse_id))
    rows += [rows[0], rows[1], (rows[2][0], 'b', '', -1, -1)]
    header = ('body', 'mood', 'area', 'id', 'sparse_id')
    path = write_csv(tmp_path / 'x.csv', rows, header)
    folder = prepare_csv(path, test_fraction=0.0)

    report = read_meta(folder, 'report.json')
    assert report['repeated_rows'] == 3
    assert report['texts_under_several_labels'] == 1
    assert report['emptied'] == 0

    assert list(report['columns']) == ['body', 'area', 'id', 'sparse_id']
    area = report['columns']['area']
    assert area['missing'] == 41
    assert area['distinct'] == 2
    assert area['p'] < 1e-9
    assert report['columns']['id'] == {'missing': 0, 'distinct': None}
    assert report['columns']['sparse_id'] == {'missing': 84, 'distinct': None}

    for split, counts in report['labels'].items():
        assert sum(counts.values()) == report['rows'][split] == len(Split(folder, split))
    train = Split(folder, 'train')
    longest = {}
    for label, name in enumerate(train.meta['labels']):
        longest[name] = train.lengths[train.labels == label].max()
    assert {name: lengths[3] for name, lengths in report['lengths'].items()} == longest
    assert report['example']['text'] == rows[report['example']['row']][0]


def test_only_a_column_that_knows_the_rare_label_is_suspicious(tmp_path, prepare_csv, capsys):
    """If 99 of 100 rows have one label, any column guesses that many rows right."""
    rows = []
    for i in range(1000):
        mood = 'b' if i % 100 == 0 else 'a'
        rows.append((f'text number {i}', mood, mood + 'x', i % 3))
    path = write_csv(tmp_path / 'x.csv', rows, ('body', 'mood', 'telling', 'shop'))
    report = read_meta(prepare_csv(path), 'report.json')
    assert report['columns']['shop']['guess'] == 0.99

    report['share_truncated'] = 0.0
    prepare.print_report(report)
    lines = capsys.readouterr().out.splitlines()
    suspicious = [line.split()[0] for line in lines if 'alone tells' in line]
    assert suspicious == ['telling']


def test_a_column_that_rows_of_a_jsonl_lack_is_missing_there(tmp_path, prepare_csv):
    rows = [
        {'body': text, 'mood': label} for text, label in make_rows(20, 'a') + make_rows(20, 'b')
    ]
    for row in rows[:15]:
        row['shop'] = 'north'
    rows[0]['shop'] = ''
    path = tmp_path / 'x.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    report = read_meta(prepare_csv(path), 'report.json')
    assert report['columns']['shop']['missing'] == 26


def test_the_example_is_printed_as_it_is(tmp_path, prepare_csv, capsys):
    """It shows what cleaning has made of a text, line by line."""
    rows = [('One (1)\ntwo', 'a'), ('three', 'b')] * 2
    report = read_meta(prepare_csv(rows, val_fraction=0.0, test_fraction=0.0), 'report.json')
    report['share_truncated'] = 0.5
    prepare.print_report(report)
    expected = 'The first training text (row 0, label a), uncut:\none 1\ntwo\n'
    assert capsys.readouterr().out.endswith(expected)


@pytest.mark.skipif(not RAW, reason='NANOSENTIMENT_RAW names no folder with the real data')
def test_customer_service_has_the_known_counts(tmp_path):
    """970 and 30 rows; the area goes with the sentiment, category and complexity do not."""
    own_columns = {'text_column': '', 'label_column': ''}
    settings = make_settings(tmp_path, 'customer_service', speakers='customer', **own_columns)
    folder = prepare.prepare(settings)

    report = read_meta(folder, 'report.json')
    assert report['rows']['train'] + report['rows']['val'] == 970
    assert report['rows']['test'] == 30
    assert report['emptied'] == 3
    assert report['repeated_rows'] == 2
    assert report['rejected'] == 0

    columns = report['columns']
    assert len(columns) == 10
    assert all(column['missing'] == 0 for column in columns.values())
    assert columns['issue_area']['p'] < 0.001
    assert columns['product_category']['p'] > 0.05
    assert columns['issue_complexity']['p'] > 0.05
    # each of the 109 topics has one label, so a model may learn topics in place of sentiment
    assert columns['issue_sub_category']['distinct'] == 109
    assert columns['issue_sub_category']['guess'] == 1
    # nearly every conversation occurs once, so the text column does not count as such a topic
    assert columns['conversation']['guess'] < 0.01

    for text in decode(folder, 'test'):
        assert 'supervisor:' not in text
        assert 'agent:' not in text


# -----------------------------------------------------------------------------
# the command


def run_prepare(tmp_path, path, *args, **options):
    columns = ('--text_column=body', '--label_column=mood', '--tokenizer=bpe300')
    return run(
        'prepare.py', f'--dataset={path}', f'--data_dir={tmp_path}', *columns, *args, **options
    )


def test_the_last_line_is_json(tmp_path):
    """Scripts read it; a terminal that knows no emoji must not break it."""
    rows = make_rows(30, 'a') + make_rows(30, 'b')
    path = write_csv(tmp_path / 'x.csv', [(f'{text} 😀', label) for text, label in rows])
    ascii_terminal = {'PYTHONIOENCODING': 'ascii'}

    first = run_prepare(tmp_path, path, env=ascii_terminal)
    assert first.err.startswith('preparing ')
    assert len(first.err.splitlines()) == 1
    names = ['dataset', 'tokenizer', 'rows', 'rejected', 'labels', 'tokens', 'share_truncated']
    assert list(first.last) == [*names, 'folder']
    assert first.last['rows'] == {'train': 48, 'val': 6, 'test': 6}
    assert first.last['labels']['val'] == {'a': 3, 'b': 3}

    again = run_prepare(tmp_path, path, '--block_size=3', env=ascii_terminal)
    assert again.err == ''
    assert again.last['share_truncated'] == 1.0


@pytest.mark.parametrize(
    'mistake', ['--dataset=nowhere.csv', '--text_column=x', '--datset=x', '--label_column=body']
)
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, mistake):
    path = write_hundred_rows(tmp_path / 'mine.csv')
    result = run_prepare(tmp_path, path, mistake, status=2)
    errors = [line for line in result.err.splitlines() if not line.startswith('preparing ')]
    assert len(errors) == 1
    assert result.out == ''


def test_no_torch_is_needed(tmp_path):
    """Loading torch takes longer than preparing most data sets."""
    settings = make_settings(tmp_path, write_hundred_rows(tmp_path / 'mine.csv'))
    code = f'import sys, prepare\nprepare.prepare({settings!r})\nassert "torch" not in sys.modules'
    run(['-c', code], cwd=ROOT)
