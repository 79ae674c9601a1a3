# python -m pytest tests/test_prepare.py
"""From a raw file to a prepared folder: no row is lost in silence, and every mistake is named."""

import csv
import gzip
import hashlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from hypothesis import given
from hypothesis import settings as search_settings
from hypothesis import strategies as st

import prepare
from configurator import declared_settings
from nanosentiment.cleaning import clean
from nanosentiment.memmaps import MAX_LABELS, Split, read_meta
from nanosentiment.tokenizer import get_tokenizer, load_tokenizer

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


def write_jsonl(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
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


def texts_by_split(folder):
    """{split: its texts}"""
    return {name: decode(folder, name) for name in read_meta(folder)['rows']}


def read_rejected(folder):
    """[(line number, reason), ...] of a folder's rejected.csv"""
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
    folder = prepare_csv(path, val_fraction=0.0, test_fraction=0.0, max_rejected=0.4)
    assert [line for line, _ in read_rejected(folder)] == [3, 5]
    assert read_meta(folder, 'report.json')['rejected'] == 2
    assert Split(folder, 'train').rows.tolist() == [0, 2, 4]


def test_rows_of_a_jsonl_may_lack_a_column(tmp_path, prepare_csv):
    """Such a row is rejected, even if it is the first, and not the file."""
    rows = [{'body': 'x'}]
    rows += [{'body': f'text {i}', 'mood': 'ab'[i % 2]} for i in range(40)]
    folder = prepare_csv(write_jsonl(tmp_path / 'x.jsonl', rows))
    assert read_rejected(folder) == [(1, 'no label')]


def test_several_columns_are_one_text(tmp_path, prepare_csv):
    """The title of a review often says more than its body."""
    rows = [('Hated it', f'Came on day {i}.', 'a') for i in range(9)]
    rows += [('', f'Came on time {i}.', 'b') for i in range(9)]
    path = write_csv(tmp_path / 'x.csv', rows, ('title', 'body', 'mood'))
    folder = prepare_csv(path, text_column='title,body', val_fraction=0.0, test_fraction=0.0)
    texts = decode(folder, 'train')
    assert texts[0] == 'Hated it\nCame on day 0.'
    assert texts[9] == 'Came on time 0.'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16', 'cp1252'])
def test_a_table_is_read_in_its_encoding(tmp_path, prepare_csv, capsys, encoding):
    """Spreadsheets save as UTF-16 or cp1252; of a guess, a line says so."""
    rows = [(f'it’s café number {i}', 'ab'[i % 2]) for i in range(40)]
    path = tmp_path / 'mine.csv'
    content = ''.join(f'{body};{mood}\n' for body, mood in [('body', 'mood'), *rows])
    path.write_bytes(content.encode(encoding))
    folder = prepare_csv(path, val_fraction=0.0, test_fraction=0.0)
    assert decode(folder, 'train') == [body for body, _ in rows]
    notes = [line for line in capsys.readouterr().err.splitlines() if 'preparing' not in line]
    if encoding == 'cp1252':
        assert len(notes) == 1
        assert notes[0].startswith(f'{path}: read as cp1252')
    else:
        assert notes == []


def test_a_file_without_a_header_has_columns_by_number(tmp_path, prepare_csv):
    """As Sentiment140; the first row is one like the others."""
    path = tmp_path / 's140.csv'
    path.write_text(''.join(f'"{4 * (i % 2)}","user{i}","tweet {i}"\n' for i in range(40)))
    settings = {'header': 'False', 'text_column': '2', 'label_column': '0'}
    folder = prepare_csv(path, val_fraction=0.0, test_fraction=0.0, **settings)
    assert decode(folder, 'train')[0] == 'tweet 0'
    assert read_meta(folder)['rows'] == {'train': 40}

    with pytest.raises(ValueError, match=r"no column '2'.*looks like data.*set --header=False"):
        prepare_csv(path, **settings | {'header': 'auto'})


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


@pytest.mark.parametrize('learns', [True, False])
def test_neither_batches_nor_line_ends_change_a_text(tmp_path, monkeypatch, learns):
    """Between cleaning and encoding a text is a line of a file, and must come back as it was."""
    # cleaning leaves nothing of the first two, so they stay raw
    special_texts = ['(\r)', '[\x85]\u2028{', 'two\nlines']
    rows = make_rows(60, 'good') + [(text, 'good') for text in special_texts]
    rows += make_rows(30, 'bad')
    path = write_csv(tmp_path / 'mine.csv', rows)
    tokenizer = 'bpe300'
    if not learns:
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
    """No test rows are taken from the training file then."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    known_row = make_rows(1, 'good')[0]
    test_file = write_csv(tmp_path / 'test.csv', [('new text', 'bad'), known_row])

    folder = prepare_csv(path, test_file=test_file)

    report = read_meta(folder, 'report.json')
    assert report['rows'] == {'train': 90, 'val': 10, 'test': 2}
    assert report['test_texts_in_train'] == 1
    assert Split(folder, 'test').rows.tolist() == [0, 1]
    assert decode(folder, 'test')[0] == 'new text'
    # test_fraction has no meaning with a test file, so it is no other data
    assert prepare_csv(path, test_file=test_file, test_fraction=0.3) == folder


def test_a_validation_file_is_the_validation_split(tmp_path, prepare_csv, capsys):
    """
    No validation rows are taken from the training file then. A label that training does not know
    has no loss, so such a row cannot be validated on.
    """
    path = write_hundred_rows(tmp_path / 'mine.csv')
    known_row = make_rows(1, 'good')[0]
    val_rows = [('new text', 'bad'), ('odd', 'furious'), known_row]
    val_file = write_csv(tmp_path / 'val.csv', val_rows)

    with pytest.raises(ValueError, match='val.csv: 1 of 3 rows .*unknown to training'):
        prepare_csv(path, val_file=val_file)
    folder = prepare_csv(path, val_file=val_file, max_rejected=0.4)

    report = read_meta(folder, 'report.json')
    assert report['rows'] == {'train': 90, 'val': 2, 'test': 10}
    assert report['labels']['val'] == {'bad': 1, 'good': 1, 'meh': 0}
    assert report['val_texts_in_train'] == 1
    assert Split(folder, 'val').rows.tolist() == [0, 2]
    assert decode(folder, 'val')[0] == 'new text'
    assert read_rejected(folder) == [(3, "label 'furious' is unknown to training")]
    assert read_meta(folder)['labels'] == ['bad', 'good', 'meh']
    assert read_meta(folder)['unknown_labels'] == []
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"{val_file}: 1 of 3 rows cannot be used: label 'furious' is unknown")
    # val_fraction has no meaning with a validation file, so it is no other data
    assert prepare_csv(path, val_file=val_file, max_rejected=0.4, val_fraction=0.3) == folder


def write_split_rows(path, words, extra_rows=()):
    """A file of 10 rows for each of the words in its column 'part', and of extra_rows."""
    rows = []
    for word in words:
        rows += [(f'{word} text {i}', 'ab'[i % 2], word) for i in range(10)]
    return write_csv(path, [*rows, *extra_rows], ('body', 'mood', 'part'))


def test_a_split_column_says_where_each_row_belongs(tmp_path, prepare_csv):
    """Rows of all splits may be mixed, with words in any case; others name no split."""
    words = ['Dev', 'train', 'TESTING', 'training', 'validation', 'test', 'val', 'valid']
    extra_rows = [('somewhere', 'a', 'holdout'), ('nowhere', 'b', ''), ('odd', 'furious', 'dev')]
    path = write_split_rows(tmp_path / 'x.csv', words, extra_rows)

    folder = prepare_csv(path, split_column='part')

    splits = {'train': [], 'val': [], 'test': []}
    for word in words:
        name = {'t': 'train', 'T': 'test'}.get(word[0], 'val')
        if word == 'test':
            name = 'test'
        splits[name] += [f'{word} text {i}' for i in range(10)]
    assert texts_by_split(folder) == splits
    assert read_rejected(folder) == [
        (82, "part says 'holdout', which is none of train, validation and test"),
        (83, "part says '', which is none of train, validation and test"),
        (84, "label 'furious' is unknown to training"),
    ]
    assert Split(folder, 'val').rows[0] == 0
    assert Split(folder, 'train').rows[0] == 10


@pytest.mark.parametrize(
    'words, sizes',
    [
        (['train', 'train2'], None),
        (['train', 'dev'], {'train': 8, 'val': 10, 'test': 2}),
        (['train', 'test'], {'train': 8, 'val': 2, 'test': 10}),
        (['train'], {'train': 6, 'val': 2, 'test': 2}),
        (['dev', 'test'], None),
    ],
)
def test_a_split_that_no_row_names_is_taken_from_the_training_rows(
    tmp_path, prepare_csv, words, sizes
):
    path = write_split_rows(tmp_path / 'x.csv', words)
    settings = {'split_column': 'part', 'val_fraction': 0.2, 'test_fraction': 0.2}
    if sizes is None:
        with pytest.raises(ValueError, match='is --split_column=part right'):
            prepare_csv(path, **settings)
    else:
        assert read_meta(prepare_csv(path, **settings))['rows'] == sizes


def test_rows_of_a_group_stay_in_one_split(tmp_path, prepare_csv):
    """A model may know a customer's manner from training; a customer it has not met is the test."""
    header = ('body', 'mood', 'customer')
    rows = [(f'{c} writes {i}', 'ab'[i % 2], f'{c}') for i in range(4) for c in range(20)]
    rows += [(f'nobody writes {i}', 'ab'[i % 2], '') for i in range(20)]
    path = write_csv(tmp_path / 'x.csv', rows, header)

    for settings in ({}, {'folds': 5, 'fold': 2}):
        folder = prepare_csv(path, group_column='customer', **settings)
        splits_of = {}
        for split_name, texts in texts_by_split(folder).items():
            for text in texts:
                splits_of.setdefault(text.split()[0], set()).add(split_name)
        assert {name for names in splits_of.values() for name in names} == {'train', 'val', 'test'}
        # rows without a customer are no group
        assert splits_of.pop('nobody') == {'train', 'val', 'test'}
        assert len(splits_of) == 20
        assert all(len(names) == 1 for names in splits_of.values())


def test_only_test_rows_have_a_label(tmp_path, prepare_csv):
    """The same as with a test file, where training rows come last in the file."""
    rows = [('one', 'c', 'test'), ('two', 'a', 'test')]
    rows += [(f'text {i}', 'ab'[i % 2], 'train') for i in range(20)]
    path = write_csv(tmp_path / 'x.csv', rows, ('body', 'mood', 'part'))
    folder = prepare_csv(path, split_column='part')
    assert read_meta(folder)['labels'] == ['a', 'b']
    assert read_meta(folder)['unknown_labels'] == ['c']
    assert Split(folder, 'test').labels.tolist() == [2, 0]


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


# -----------------------------------------------------------------------------
# labels


def test_numeric_labels_are_sorted_as_numbers(prepare_csv):
    """In every table and confusion matrix 10 stars come after 9."""
    rows = []
    for label in ('10', '9', '-1', '1.5', '2'):
        rows += make_rows(6, label)
    folder = prepare_csv(rows)
    assert read_meta(folder)['labels'] == ['-1', '1.5', '2', '9', '10']


def test_a_label_is_written_in_one_way(tmp_path, prepare_csv):
    """pandas writes 1.0 where a label is missing, JSON writes true: train and test must agree."""
    rows = [{'body': f'text {i}', 'mood': bool(i % 2)} for i in range(20)]
    path = write_jsonl(tmp_path / 'x.jsonl', rows)
    test_file = write_csv(tmp_path / 'test.csv', [('one', 'TRUE'), ('two', 'False')])
    folder = prepare_csv(path, test_file=test_file)
    assert read_meta(folder)['labels'] == ['false', 'true']
    assert Split(folder, 'test').labels.tolist() == [1, 0]

    path = write_csv(tmp_path / 'x.csv', [(f'text {i}', f'{i % 2}.0') for i in range(20)])
    test_file = write_csv(tmp_path / 'test.csv', [('one', '1'), ('two', '0')])
    folder = prepare_csv(path, test_file=test_file)
    assert read_meta(folder)['labels'] == ['0', '1']
    assert Split(folder, 'test').labels.tolist() == [1, 0]


def test_labels_can_be_named(tmp_path, prepare_csv, capsys):
    """A confusion matrix of 0 and 1 says little."""
    path = write_csv(tmp_path / 'x.csv', [(f'text {i}', f'{i % 2}.0') for i in range(20)])
    folder = prepare_csv(path, label_names='0=bad, 1=good, 2=meh')
    assert read_meta(folder)['labels'] == ['bad', 'good']
    assert read_meta(folder)['recipe']['label_names'] == {'0': 'bad', '1': 'good', '2': 'meh'}
    note = 'label_names calls the label 2 meh, but no row has this label'
    assert f'{path}: {note}' in capsys.readouterr().err.splitlines()
    assert prepare_csv(path) != folder


def test_labels_that_only_the_test_has_are_kept(tmp_path, prepare_csv, capsys):
    """A model that cannot know them is wrong on them; without these rows it would look better."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    test_rows = [('a', 'zz'), ('b', 'good'), ('c', 'furious'), ('d', 'zz'), ('e', 'bad')]
    test_file = write_csv(tmp_path / 'test.csv', test_rows)

    folder = prepare_csv(path, test_file=test_file)

    meta = read_meta(folder)
    assert meta['labels'] == ['bad', 'good', 'meh']
    assert meta['unknown_labels'] == ['furious', 'zz']
    assert Split(folder, 'test').labels.tolist() == [4, 1, 3, 4, 0]
    report = read_meta(folder, 'report.json')
    assert report['rejected'] == 0
    assert report['unknown_labels'] == {'furious': 1, 'zz': 2}
    assert report['labels']['test'] == {'bad': 1, 'good': 1, 'meh': 0, 'furious': 1, 'zz': 2}
    assert report['labels']['train'] == {'bad': 27, 'good': 54, 'meh': 9}
    expected = (
        f'{test_file}: 3 of 5 test rows have labels that training does not know (zz 2, furious 1); '
        'they count as wrong answers'
    )
    assert expected in capsys.readouterr().err.splitlines()
    # what is prepared already is no reason to be silent
    assert prepare_csv(path, test_file=test_file) == folder
    assert capsys.readouterr().err.splitlines() == [expected]


def test_each_row_may_have_a_label_of_its_own(prepare_csv, capsys):
    """Intents often have few rows; it may also be a wrong column, so a line says so."""
    folder = prepare_csv([(f'do thing {i}', f'intent_{i}') for i in range(40)])
    assert read_meta(folder)['rows'] == {'train': 40}
    assert len(read_meta(folder)['labels']) == 40
    err = capsys.readouterr().err
    assert '40 labels in 40 rows; is --label_column=mood right?' in err
    assert '40 of 40 labels have one row only' in err
    assert 'neither validated nor tested' in err


def test_several_labels_in_one_are_pointed_out(prepare_csv, capsys):
    """Each combination is a label of its own here, which nobody may find out by chance."""
    labels = ['toxic', 'spam', 'toxic,spam', 'spam,joke', 'joke']
    prepare_csv([(f'text {i}', labels[i % 5]) for i in range(50)])
    notes = [line for line in capsys.readouterr().err.splitlines() if 'several labels' in line]
    assert len(notes) == 1


@pytest.mark.parametrize('one', ['1', '1.0', 'True', True, 1])
def test_columns_of_zeros_and_ones_are_pointed_out(tmp_path, prepare_csv, capsys, one):
    zero = {'1': '0', '1.0': '0.0', 'True': 'False'}[str(one)]
    if not isinstance(one, str):
        zero = type(one)(0)
    rows = []
    for i in range(40):
        cells = [[zero, one][i // 2**j % 2] for j in range(3)]
        rows.append(dict(zip(('mood', 'spam', 'joke'), cells)) | {'body': f'text {i}', 'id': i})
    prepare_csv(write_jsonl(tmp_path / 'x.jsonl', rows))
    assert 'spam, joke also hold only 0 and 1, like mood' in capsys.readouterr().err


def test_too_many_labels_are_an_error_before_all_rows_are_read(tmp_path, prepare_csv):
    """An id as label column of five million rows must not fill the memory."""
    path = write_csv(tmp_path / 'x.csv', ((f'text {i}', i) for i in range(MAX_LABELS + 100)))
    message = f'more than 65,536 labels up to line {MAX_LABELS + 2}; is --label_column=mood right'
    with pytest.raises(ValueError, match=message):
        prepare_csv(path)


# -----------------------------------------------------------------------------
# rows that cannot be used


def rows_with_losses(n_lost):
    """80 rows, 40 of each label; n_lost of the label 'bad' have no text."""
    rows = make_rows(40, 'bad') + make_rows(40, 'good')
    return [('', 'bad')] * n_lost + rows[n_lost:]


def test_lost_rows_are_told_in_one_line(tmp_path, prepare_csv, capsys):
    """How many, why, of which label, where: a model of what is left over may be worth nothing."""
    path = write_csv(tmp_path / 'mine.csv', rows_with_losses(13))
    folder = prepare_csv(path, max_rejected=0.2)
    expected = (
        f'{path}: 13 of 80 rows cannot be used: no text (13 rows, the first in line 2); by label '
        f'bad: 13 of 40, good: 0 of 40; the list is {folder}/rejected.csv'
    )
    assert capsys.readouterr().err.splitlines()[1:] == [expected]
    # and again when the prepared folder is used again
    assert prepare_csv(path, max_rejected=0.2) == folder
    assert capsys.readouterr().err.splitlines() == [expected]


def test_too_many_lost_rows_are_an_error(tmp_path, prepare_csv):
    """5 % by default; the list is kept, also when the same data has been prepared before."""
    path = write_csv(tmp_path / 'mine.csv', rows_with_losses(5))
    with pytest.raises(ValueError) as error:
        prepare_csv(path)
    message = str(error.value)
    rejected_path = tmp_path / 'data' / 'mine' / 'rejected.csv'
    assert message.startswith(f'{path}: 5 of 80 rows cannot be used: no text')
    assert f'the list is {rejected_path}; is --text_column=body right?' in message
    assert message.endswith('to go on without these rows, set --max_rejected=0.07')
    assert read_rejected(rejected_path.parent) == [(i, 'no text') for i in range(2, 7)]
    assert os.listdir(rejected_path.parent) == ['rejected.csv']

    folder = prepare_csv(path, max_rejected=0.07)
    with pytest.raises(ValueError, match=f'the list is {folder}/rejected.csv; is --text_column'):
        prepare_csv(path)


def test_max_rejected_of_zero_accepts_no_lost_row(prepare_csv):
    assert prepare_csv(rows_with_losses(0), max_rejected=0.0)
    with pytest.raises(ValueError, match='1 of 80 rows cannot be used'):
        prepare_csv(rows_with_losses(1), max_rejected=0.0)


def test_each_file_has_its_own_limit_and_reasons(tmp_path, prepare_csv):
    """Of 200 training rows 4 are few; of 20 test rows they are not, and the reason is another."""
    rows = make_rows(100, 'bad') + make_rows(96, 'good') + [('', 'good')] * 4
    path = write_csv(tmp_path / 'mine.csv', rows)
    test_rows = make_rows(16, 'good') + [('text', '')] * 4
    test_file = write_csv(tmp_path / 'test.csv', test_rows)
    with pytest.raises(ValueError, match=r'test.csv: 4 of 20 rows cannot be used: no label \(4'):
        prepare_csv(path, test_file=test_file)


@pytest.mark.parametrize(
    'row, remedy',
    [
        ('{"body": "", "mood": "a"}', 'is --text_column=body right?'),
        ('{"body": "x", "mood": null}', 'is --label_column=mood right?'),
        ('{"body": ["x"], "mood": "a"}', 'write the text as one string'),
        ('{"body": {"x": 1}, "mood": "a"}', 'pandas.json_normalize'),
        ('{"body": "x", "mood": ["a"]}', 'this is a single-label tool'),
        ('["x", "a"]', 'write each row as an object'),
        ('{"body": "x\\u0000", "mood": "a"}', 'save the file as text in UTF-8'),
    ],
)
def test_the_remedy_fits_the_reason(tmp_path, prepare_csv, row, remedy):
    path = tmp_path / 'x.jsonl'
    rows = [json.dumps({'body': f'text {i}', 'mood': 'ab'[i % 2]}) for i in range(20)]
    path.write_text('\n'.join([*rows, row, row]) + '\n')
    with pytest.raises(ValueError) as error:
        prepare_csv(path)
    assert '2 of 22 rows cannot be used' in str(error.value)
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    'content, settings, remedy',
    [
        ('body,mood\n' + 'fine,a\nbad,b\n' * 9 + 'one, two,a\n' * 4, {}, 'set --delimiter'),
        ('body,mood\n' + 'fine,a\nbad,b\n' * 9 + '"open,a\n' * 4, {}, 'close the quote'),
        (
            'body,mood\n' + 'fine,a\nbad,b\n' * 9 + 'café,a\n' * 4,
            {'encoding': 'ascii'},
            'set --encoding',
        ),
    ],
)
def test_the_remedy_of_a_csv_fits_the_reason(tmp_path, prepare_csv, content, settings, remedy):
    path = tmp_path / 'x.csv'
    path.write_text(content, encoding='utf-8')
    with pytest.raises(ValueError, match=f'4 of 22 rows cannot be used.*{remedy}'):
        prepare_csv(path, **settings)


@search_settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=200))
def test_no_row_of_any_file_is_lost(content):
    """Rows in are rows used and rows rejected, or else the user is told what to correct."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'x.csv')
        path.write_bytes(b'body,mood\none,a\ntwo,b\n' + content)
        changes = {'val_fraction': 0.0, 'test_fraction': 0.0, 'max_rejected': 1.0}
        try:
            prepared = prepare.prepare(make_settings(Path(folder), path, **changes))
        except ValueError as error:
            assert '\n' not in str(error)
            return
        report = read_meta(prepared, 'report.json')
        assert report['files']['train']['rows'] == report['rows']['train'] + report['rejected']
        assert report['rejected'] == len(read_rejected(prepared))


# -----------------------------------------------------------------------------
# cleaning


def test_cleaning_removes_no_signal_unless_told(prepare_csv):
    """Emoticons, capitals, brackets and code decide in some data; a config may remove them."""
    texts = ['GREAT :)', 'great :(', 'vector<int> a[2]', 'if a<b and c>d', '<ORG> is (so) late']
    rows = [(text, 'ab'[i % 2]) for i, text in enumerate(texts)]
    folder = prepare_csv(rows, val_fraction=0.0, test_fraction=0.0)
    assert decode(folder, 'train') == texts
    report = read_meta(folder, 'report.json')
    assert report['cleaned'] == 0
    assert report['cleaning_example'] == {}


@pytest.mark.parametrize('is_cased', [True, False])
def test_case_follows_the_checkpoint(prepare_csv, tmp_path, is_cased):
    """A cased model was trained to read capitals; an uncased one has no tokens for them."""
    tokenizers = pytest.importorskip('tokenizers')
    vocab = {'[UNK]': 0, '[CLS]': 1, '[SEP]': 2, 'good': 3, 'Good': 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, '[UNK]'))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        '[CLS] $A [SEP]', special_tokens=[('[CLS]', 1), ('[SEP]', 2)]
    )
    if not is_cased:
        tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.save(str(tmp_path / 'tokenizer.json'))

    rows = [('Good', 'a'), ('good', 'b')]
    folder = prepare_csv(
        rows, tokenizer=str(tmp_path / 'tokenizer.json'), val_fraction=0.0, test_fraction=0.0
    )

    ids = [text[1] for text in Split(folder, 'train')]
    assert ids == ([4, 3] if is_cased else [3, 3])


def test_the_report_shows_what_cleaning_changes(prepare_csv, capsys):
    """One text before and after, because nobody reads all of them; blanks do not count."""
    words = ' '.join(f'w{i}' for i in range(30))
    rows = [('two  blanks', 'a'), (f'{words} <b>bold</b> {words}', 'b'), ('<p>plain</p>', 'a')]
    rows += make_rows(20, 'a') + make_rows(20, 'b')
    folder = prepare_csv(rows)

    report = read_meta(folder, 'report.json')
    assert report['cleaned'] == 2
    example = report['cleaning_example']
    assert example['row'] == 1
    assert example['before'].startswith('... w25 w26 w27 w28 w29 <b>bold</b> w0 w1')
    assert example['after'].startswith('... w25 w26 w27 w28 w29 bold w0 w1')
    assert example['after'].endswith(' ...')

    report['share_truncated'] = 0.0
    prepare.print_report(report)
    out = capsys.readouterr().out
    assert 'Cleaning changes the words of 2 texts, first of row 1:\n  before: ... w25' in out
    assert '\n  after:  ... w25' in out


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


@pytest.mark.parametrize('n_vocab, n_bytes', [(65_536, 2), (65_537, 4), (70_000, 4)])
def test_ids_above_65535_do_not_wrap_around(tmp_path, prepare_csv, n_vocab, n_bytes):
    """In 16 bits they would be other words, in silence. Multilingual models have 250,000 tokens."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is missing')
    n_words = n_vocab - 1
    vocab = {f'w{i}': i for i in range(n_words)}
    coder = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='w0'))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    coder.add_special_tokens(['<|endoftext|>'])
    coder.save(str(tmp_path / 'tokenizer.json'))
    rows = [(f'w{i} w{n_words - 1 - i}', 'ab'[i % 2]) for i in range(100)]

    folder = prepare_csv(rows, tokenizer=str(tmp_path / 'tokenizer.json'))

    for name in ('train', 'val', 'test'):
        split = Split(folder, name)
        for ids, row in zip(split, split.rows):
            assert ids.tolist() == [row, n_words - 1 - row, n_vocab - 1]
        assert os.path.getsize(f'{folder}/{name}.tok') == n_bytes * 3 * len(split)
    assert decode(folder, 'train')[0] == rows[Split(folder, 'train').rows[0]][0]


def test_a_given_tokenizer_is_used_as_it_is(tmp_path):
    """A run that goes on from another one needs the ids that its weights were trained with."""
    first_texts = ['the parcel is late, the parcel is here'] * 9
    given = get_tokenizer('bpe300', first_texts)
    assert given.n_vocab == 275
    path = write_hundred_rows(tmp_path / 'mine.csv')
    settings = make_settings(tmp_path, path, tokenizer='nothing')

    folder = prepare.prepare(settings, given)

    assert read_meta(folder, 'tokenizer_state.json') == given.state()
    assert read_meta(folder)['tokenizer']['n_vocab'] == 275
    assert read_meta(folder)['recipe']['tokenizer'] == ['bpe300', given.sha256]
    split = Split(folder, 'train')
    with open(path, newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    for ids, row in zip(split, split.rows):
        assert ids.tolist() == given.encode(rows[row]['body'])
    # of the same name, but learned from these texts, and so another folder
    learned = prepare.prepare(settings | {'tokenizer': 'bpe300'})
    assert learned != folder
    assert read_meta(learned, 'tokenizer_state.json') != given.state()
    assert prepare.prepare(settings, given) == folder


def test_a_given_tokenizer_that_has_learned_nothing_is_refused(tmp_path):
    """Its folder would have the name of one whose tokens are learned from these texts."""
    settings = make_settings(tmp_path, write_hundred_rows(tmp_path / 'mine.csv'))
    with pytest.raises(ValueError, match='too few texts for bpe300 .*--init_from=scratch') as error:
        prepare.prepare(settings, get_tokenizer('bpe300', ['ab']))
    assert '\n' not in str(error.value)


def test_without_an_appended_end_it_is_other_data(tmp_path, prepare_csv):
    """The tokenizer.json is the same for a GPT-2 and for a classifier made of it."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    characters = set(Path(path).read_text())
    (tmp_path / 'model').mkdir()
    tokenizer = write_character_tokenizer(tmp_path / 'model', characters)
    with_end = prepare_csv(path, tokenizer=tokenizer)
    config = {'model_type': 'gpt2', 'architectures': ['GPT2ForSequenceClassification']}
    (tmp_path / 'model' / 'config.json').write_text(json.dumps(config))

    without_end = prepare_csv(path, tokenizer=tokenizer)

    assert without_end != with_end
    for ids, longer_ids in zip(Split(without_end, 'train'), Split(with_end, 'train')):
        assert [*ids, len(characters)] == longer_ids.tolist()
    assert decode(without_end, 'train') == decode(with_end, 'train')


# -----------------------------------------------------------------------------
# what the user can correct


@pytest.mark.parametrize(
    'change, message',
    [
        ({'text_column': 'bdy'}, "no column 'bdy'; set --text_column to one of body, mood"),
        ({'label_column': ''}, 'label_column is not set; set --label_column to one of body, mood'),
        ({'label_column': 'body'}, "text_column and label_column both name 'body'"),
        ({'text_column': 'body,mood'}, "text_column and label_column both name 'mood'"),
        ({'text_column': 'body,x'}, "no column 'x'; set --text_column"),
        ({'split_column': 'x'}, "no column 'x'; set --split_column to one of body, mood"),
        ({'label_names': 'good'}, "label_names='good'"),
        ({'dataset': 'nowhere.csv'}, 'no file nowhere.csv'),
        ({'dataset': 'nowhere.csv.gz'}, 'no file nowhere.csv.gz'),
        ({'dataset': 'imdb'}, "'imdb' is neither one of customer_service, demo, sst2"),
        ({'dataset': ''}, "'' is neither one of"),
        ({'test_file': 'nowhere.csv'}, 'no file nowhere.csv'),
        ({'val_file': 'nowhere.csv'}, 'no file nowhere.csv'),
        ({'val_fraction': 0.6, 'test_fraction': 0.5}, 'set both to 0 or more, and their sum below'),
        ({'test_fraction': -0.1}, 'test_fraction -0.1'),
        ({'folds': 5, 'fold': 6}, 'fold 6 of 5 folds cannot be made; set --folds'),
        ({'folds': 1}, 'fold 0 of 1 folds cannot'),
        ({'val_file': 'a.csv', 'folds': 5, 'fold': 1}, 'val_file and folds'),
        ({'split_column': 'a', 'folds': 5}, 'split_column and folds'),
        ({'split_column': 'a', 'test_file': 'a.csv'}, 'split_column and test_file'),
        ({'split_column': 'a', 'val_file': 'a.csv'}, 'split_column and val_file'),
        ({'split_column': 'a', 'group_column': 'b'}, 'split_column and group_column'),
        ({'group_column': 'mood'}, "group_column and label_column both name 'mood'"),
        ({'group_column': 'x'}, "no column 'x'; set --group_column to one of body, mood"),
        ({'split_column': 'a', 'dataset': 'demo'}, 'split_column is for files of your own'),
        ({'max_rejected': 5.0}, 'max_rejected 5.0 is no share of rows; set it between 0 and 1'),
        ({'delimiter': ',,'}, "delimiter ',,'"),
        ({'encoding': 'klingon'}, "encoding 'klingon'"),
        ({'header': 'no'}, "header 'no'"),
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


def test_a_test_file_of_other_labels_is_an_error(tmp_path, prepare_csv):
    """An accuracy of 0 would look like a bad model, and not like a mistake."""
    path = write_csv(tmp_path / 'mine.csv', [*make_rows(9, 'good'), ('fine', 'bad')])
    test_file = write_csv(tmp_path / 'test.csv', [('fine', 'splendid')])
    message = (
        'test.csv: none of the 1 test rows has a label that training knows: they have splendid, '
        'and training has good, bad; rename labels with --label_names, or correct the file'
    )
    with pytest.raises(ValueError, match=message):
        prepare_csv(path, test_file=test_file)


@pytest.mark.parametrize('setting', ['test_file', 'val_file'])
def test_a_file_without_usable_rows_is_an_error(tmp_path, prepare_csv, setting):
    """Otherwise a run would end without a test, and without a word."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    other_file = write_csv(tmp_path / 'other.csv', [('', 'good')])
    with pytest.raises(ValueError, match='other.csv: none of its rows can be used'):
        prepare_csv(path, max_rejected=1.0, **{setting: other_file})


@pytest.mark.parametrize('name', ['text_column', 'label_column', 'split_column'])
def test_a_key_that_no_row_of_a_jsonl_has_is_named(tmp_path, prepare_csv, name):
    """All rows lack it, so none of them is the mistake; the first may have fewer keys."""
    rows = [{'body': text, 'mood': label} for text, label in make_rows(9, 'a') + make_rows(9, 'b')]
    rows[5]['part'] = 'train'
    path = write_jsonl(tmp_path / 'x.jsonl', rows)
    with pytest.raises(ValueError) as error:
        prepare_csv(path, **{name: 'bdy'})
    assert str(error.value) == (
        f"{path}: no row has the key 'bdy'; set --{name} to one of body, mood, part"
    )


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('x.csv', '', 'x.csv is empty'),
        ('x.csv', '\n\n', 'x.csv is empty'),
        ('x.csv', 'body,mood\n', 'x.csv has no rows'),
        ('x.jsonl', '', 'x.jsonl has no rows'),
        ('x.json', '[]', 'x.json has no rows'),
        ('x.txt', 'fine\nbad\n', 'x.txt is read as plain text, which has no labels'),
        (
            'x.csv',
            'body,mood\nfine,a\nbad,a\n',
            'at least two labels .* 2 usable training rows have 1',
        ),
    ],
)
def test_a_file_with_nothing_to_learn_is_named(tmp_path, prepare_csv, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        prepare_csv(path)
    assert '\n' not in str(error.value)


def test_a_txt_with_a_delimiter_is_a_table(tmp_path, prepare_csv):
    path = tmp_path / 'x.txt'
    path.write_text('body\tmood\n' + 'fine\ta\nbad\tb\n' * 9)
    folder = prepare_csv(path, delimiter='tab')
    assert os.path.basename(os.path.dirname(folder)) == 'x'


def test_a_folder_is_no_data_set(tmp_path, prepare_csv):
    (tmp_path / 'corpus').mkdir()
    write_hundred_rows(tmp_path / 'corpus' / 'train.csv')
    message = 'corpus is a folder; give one of its files, such as .*corpus/train.csv'
    with pytest.raises(ValueError, match=message):
        prepare_csv(tmp_path / 'corpus')


def test_a_misspelt_speaker_is_an_error(prepare_csv):
    """Every text would be emptied, and therefore stay uncleaned."""
    rows = []
    for text, label in make_rows(9, 'a') + make_rows(9, 'b'):
        rows.append((f'Customer: {text}', label))
    with pytest.raises(ValueError, match='speakers=costumer'):
        prepare_csv(rows, speakers='costumer')


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
        {'lowercase': True},
        {'tokenizer': 'bpe270'},
        {'split_seed': 1},
        {'val_fraction': 0.2},
        {'label_names': 'meh=neutral'},
        {'delimiter': ','},
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


def test_the_folder_is_named_after_the_recipe_of_format_3(prepare_csv):
    """
    Data that older versions prepared must be found again.

    If this name changes so do the names of all prepared folders, and format must be raised.
    """
    folder = prepare_csv(make_rows(60, 'good') + make_rows(30, 'bad'))
    assert os.path.basename(folder) == 'bpe300-f350cf5a'


def test_a_file_that_was_moved_is_known_by_its_content(tmp_path, prepare_csv, monkeypatch):
    """Data and prepared folder may come from another machine, and be read-only there."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))  # on Windows
    folder = prepare_csv(write_hundred_rows(tmp_path / 'mine.csv'))
    times = modification_times([folder])
    (tmp_path / 'elsewhere').mkdir()
    os.rename(tmp_path / 'mine.csv', tmp_path / 'elsewhere' / 'mine.csv')
    assert prepare_csv('~/elsewhere/mine.csv', data_dir='~/data') == folder
    assert modification_times([folder]) == times


@pytest.mark.parametrize(
    'name, expected',
    [
        ('mine.csv', 'mine'),
        ('reviews.2024.v2.CSV.gz', 'reviews.2024.v2'),
        ('rows.ndjson', 'rows'),
        ('SMSSpamCollection', 'SMSSpamCollection'),
        ('my data (1).csv', 'my_data__1_'),
        ('--help.csv', 'help'),
        ('...csv', 'csv'),
        ('-.csv.gz', 'data'),
        ('Überblick für 2024.tsv', 'Überblick_für_2024'),
        ('समीक्षा.csv', 'समीक्षा'),
        ('a' * 200 + '.csv', 'a' * 60),
        ('x\udcff;$HOME.csv', 'x___HOME'),
    ],
)
def test_a_folder_has_a_harmless_name(name, expected):
    """Whatever a file is called, commands and file systems take the folder's name."""
    assert prepare.name_dataset(f'~/some folder/{name}') == expected


@pytest.mark.parametrize('name', ['-a b.csv', 'ä' * 100 + '.csv', 'x.y.csv.gz'])
def test_a_file_with_an_odd_name_is_prepared(tmp_path, prepare_csv, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = Path(write_hundred_rows(tmp_path / 'mine.csv')).read_bytes()
    if name.endswith('.gz'):
        content = gzip.compress(content)
    Path(name).write_bytes(content)
    folder = prepare_csv(name)
    assert len(Split(folder, 'train')) == 80


def test_a_folder_that_cannot_be_written_is_named(tmp_path, prepare_csv):
    """With the setting that helps. A file in its place stops root, too, unlike permissions."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    (tmp_path / 'read_only').touch()
    message = r'read_only/mine cannot be written \(.*\); make room, or set --data_dir'
    with pytest.raises(ValueError, match=message):
        prepare_csv(path, data_dir=str(tmp_path / 'read_only'))


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
    # the next one removes what is left of it; a young folder may be about to be locked
    (lock,) = tmp_path.glob('data/mine/preparing-*/.lock')
    os.utime(lock, (0, 0))
    folder = prepare.prepare(settings)
    assert len(Split(folder, 'train')) == 80
    assert os.listdir(tmp_path / 'data/mine') == [os.path.basename(folder)]


@pytest.mark.parametrize(
    'name', ['train.tok', 'train.off', 'val.lab', 'test.row', 'tokenizer_state.json', 'report.json']
)
def test_a_flipped_bit_in_a_prepared_file_is_noticed(tmp_path, prepare_csv, name):
    """Its size is right, and training went on with other texts or labels without a word."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    folder = prepare_csv(path)
    damaged = bytearray(Path(folder, name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path(folder, name).write_bytes(damaged)
    with pytest.raises(ValueError, match=f'{name} .*; delete {folder} and prepare again'):
        prepare_csv(path)


def test_reordered_labels_in_meta_json_are_noticed(tmp_path, prepare_csv):
    """Training and judging agreed on the wrong names of the labels."""
    path = write_hundred_rows(tmp_path / 'mine.csv')
    folder = prepare_csv(path)
    meta = json.loads(Path(folder, 'meta.json').read_text())
    meta['labels'].reverse()
    Path(folder, 'meta.json').write_text(json.dumps(meta))
    with pytest.raises(ValueError, match='meta.json was changed or damaged'):
        prepare_csv(path)


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
    with pytest.raises(ValueError, match='mine cannot be written .the disk is full.; make room'):
        prepare_csv(write_hundred_rows(tmp_path / 'mine.csv'))
    assert os.listdir(tmp_path / 'data' / 'mine') == []


def test_settings_may_be_missing(tmp_path):
    """Checkpoints from before there were folds, or other encodings, do not have them."""
    settings = make_settings(tmp_path, write_hundred_rows(tmp_path / 'mine.csv'))
    newer = ('folds', 'fold', 'val_file', 'split_column', 'encoding', 'max_rejected')
    without = {name: settings[name] for name in settings if name not in newer}
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
    changes = {'lowercase': True, 'strip_brackets': True}
    folder = prepare_csv(rows, val_fraction=0.0, test_fraction=0.0, **changes)
    report = read_meta(folder, 'report.json')
    report['share_truncated'] = 0.5
    prepare.print_report(report)
    expected = 'The first training text (row 0, label a), uncut:\none 1\ntwo\n'
    assert capsys.readouterr().out.endswith(expected)


@pytest.mark.skipif(not RAW, reason='NANOSENTIMENT_RAW names no folder with the real data')
def test_customer_service_has_the_known_counts(tmp_path):
    """970 and 30 rows; the area goes with the sentiment, category and complexity do not."""
    changes = {'text_column': '', 'label_column': '', 'lowercase': True, 'strip_brackets': True}
    settings = make_settings(tmp_path, 'customer_service', speakers='customer', **changes)
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


@pytest.mark.parametrize(
    'config, n_rows, checksum',
    [
        ('train_demo', 7882, 'c476b0bff24184a7'),
        ('train_sentiment_scratch', 970 + 30, '8fa4dea818a33bed'),
        ('finetune_gpt2', 970 + 30, '202b80123862e229'),
        ('train_sst2_scratch', 67_349 + 872, 'fe3db22cb474ad7c'),
    ],
)
def test_known_data_sets_stay_as_they_were(tmp_path, config, n_rows, checksum):
    """
    Their published figures belong to these rows, splits, labels and clean texts.

    The checksums are those of the code before other encodings, delimiters and defaults came in.
    """
    own = declared_settings(vars(prepare))
    of_config = runpy.run_path(os.path.join(ROOT, 'config', f'{config}.py'))
    changes = {name: value for name, value in of_config.items() if name in own}
    changes |= {'data_dir': str(tmp_path), 'tokenizer': 'bpe300'}
    if changes['dataset'] != 'demo' and not RAW:
        pytest.skip('NANOSENTIMENT_RAW names no folder with the real data')

    folder = prepare.prepare(own | changes)

    report = read_meta(folder, 'report.json')
    assert sum(report['rows'].values()) == n_rows
    assert report['rejected'] == 0
    assert all(file['notes'] == [] for file in report['files'].values())
    content = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        if name.endswith(('.lab', '.off', '.row', '.tok')):
            content.update(Path(folder, name).read_bytes())
    assert content.hexdigest().startswith(checksum)


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
    'mistake',
    [
        '--dataset=nowhere.csv',
        '--text_column=x',
        '--datset=x',
        '--label_column=body',
        '--encoding=ascii',
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, mistake):
    path = write_csv(tmp_path / 'mine.csv', [('naïve', 'a'), ('plain', 'b')] * 5)
    result = run_prepare(tmp_path, path, mistake, status=2)
    errors = [line for line in result.err.splitlines() if not line.startswith('preparing ')]
    assert len(errors) == 1
    assert result.out == ''


def test_no_torch_is_needed(tmp_path):
    """Loading torch takes longer than preparing most data sets."""
    settings = make_settings(tmp_path, write_hundred_rows(tmp_path / 'mine.csv'))
    code = f'import sys, prepare\nprepare.prepare({settings!r})\nassert "torch" not in sys.modules'
    run(['-c', code], cwd=ROOT)
