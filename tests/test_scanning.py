# python -m pytest tests/test_scanning.py
"""One pass over the raw files: every row is used or listed with its reason, and people are told."""

import csv

import numpy as np
import pytest

from nanosentiment.scanning import (
    describe_files,
    excerpt,
    number_labels,
    read_texts,
    row_split,
    say,
    say_findings,
    scan_files,
)
from nanosentiment.splitting import LEFT_OUT, TEST, TRAIN, VAL


def make_recipe(**changes):
    """The part of a recipe that decides how rows are read."""
    recipe = {
        'columns': ['body', 'mood'],
        'label_names': {},
        'table': {'delimiter': '', 'encoding': '', 'header': 'auto'},
        'split_column': '',
        'lowercase': False,
        'strip_brackets': False,
        'strip_html': True,
        'speakers': 'all',
    }
    return recipe | changes


def write_file(folder, name, content):
    path = folder / name
    path.write_text(content)
    return str(path)


def read_rejected(folder):
    with open(folder / 'rejected.csv', newline='', encoding='utf-8') as f:
        return list(csv.reader(f))[1:]


def test_a_scan_and_its_texts_have_the_same_rows(tmp_path):
    """The third number is of the third text; rows that cannot be used are in neither of them."""
    train = write_file(
        tmp_path,
        'train.csv',
        'body,mood\n"two\nlines",b\n,b\n<b>bold</b>,a\n',
    )
    test = write_file(tmp_path, 'test.csv', 'body,mood\nnew,c\nold,a\n')

    scan = scan_files(tmp_path, tmp_path, {'train': train, 'test': test}, make_recipe())

    assert list(read_texts(tmp_path)) == ['two\nlines', 'bold', 'new', 'old']
    assert list(scan.splits) == [TRAIN, TRAIN, TEST, TEST]
    assert list(scan.row_numbers) == [0, 2, 0, 1]
    assert list(scan.line_numbers) == [2, 5, 2, 3]
    assert read_rejected(tmp_path) == [[train, '4', 'no text']]
    label_names, unknown_labels, labels = number_labels(scan)
    assert label_names == ['a', 'b']
    assert unknown_labels == ['c']
    assert np.array_equal(labels, [1, 0, 2, 0])


def test_a_validation_row_of_an_unknown_label_is_left_out_with_its_line(tmp_path):
    """That is known only at the end, for with a split column training rows may come last."""
    content = 'body,mood,part\none,zz,dev\ntwo,a,dev\nthree,a,train\nfour,b,train\n'
    path = write_file(tmp_path, 'x.csv', content)
    recipe = make_recipe(split_column='part')

    scan = scan_files(tmp_path, tmp_path, {'train': path}, recipe)

    assert list(scan.splits) == [LEFT_OUT, VAL, TRAIN, TRAIN]
    assert read_rejected(tmp_path) == [[path, '2', "label 'zz' is unknown to training"]]
    assert describe_files(scan, recipe)['train']['rejected'] == 1


def test_the_word_of_a_split_may_be_written_in_any_case():
    assert row_split({'part': ' Dev'}, 'part') == (VAL, '')
    assert row_split({'part': 'TESTING'}, 'part') == (TEST, '')
    reason = "part says '', which is none of train, validation and test"
    assert row_split({}, 'part') == (TRAIN, reason)


def test_an_excerpt_shows_what_it_leaves_out():
    words = [f'w{i}' for i in range(40)]
    assert excerpt(words[:3], 1) == 'w0 w1 w2'
    assert excerpt(words, 0) == ' '.join(words[:20]) + ' ...'
    assert excerpt(words, 30) == '... ' + ' '.join(words[25:])


def test_a_note_is_one_line(capsys):
    """A label or a path in it may have several, and scripts read stderr line by line."""
    say('label a\nb\u2028c')
    assert capsys.readouterr().err == 'label a b c\n'


@pytest.mark.parametrize('rank', ['0', '1'])
def test_under_torchrun_only_the_first_process_tells(monkeypatch, capsys, rank):
    """With eight GPUs each note would come eight times. An error stops every process."""
    monkeypatch.setenv('RANK', rank)
    file = {'notes': ['read as cp1252'], 'rows': 20, 'rejected': 2, 'reason': 'no text'}
    file |= {'with_reason': 2, 'line': 3, 'by_label': [], 'remedy': ''}

    say_findings({'train': file}, {'train': 'x.csv'}, 'rejected.csv', max_rejected=0.1)

    expected = []
    if rank == '0':
        expected = [
            'x.csv: read as cp1252',
            'x.csv: 2 of 20 rows cannot be used: no text (2 rows, the first in line 3); '
            'the list is rejected.csv',
        ]
    assert capsys.readouterr().err.splitlines() == expected
    with pytest.raises(ValueError, match='2 of 20 rows cannot be used'):
        say_findings({'train': file}, {'train': 'x.csv'}, 'rejected.csv', max_rejected=0.05)
