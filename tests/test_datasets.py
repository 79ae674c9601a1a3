# python -m pytest tests/test_datasets.py
"""The data sets known by name. How their files are found and downloaded: tests/test_download.py."""

import os

import pytest

from nanosentiment import datasets
from nanosentiment.datasets import DATASETS, find_raw
from nanosentiment.tables import Table


def test_the_bundled_data_set_has_the_columns_of_its_row():
    paths = find_raw('demo', '')
    assert list(paths) == ['train', 'test']
    for path in paths.values():
        table = Table(path)
        assert set(DATASETS['demo']['columns']) <= set(table.columns)
        assert table.notes == []


def test_a_file_of_ones_own_has_a_test_file_only_if_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('mine.csv', 'other.csv'):
        (tmp_path / name).touch()
    assert find_raw('mine.csv', '') == {'train': 'mine.csv'}
    assert find_raw('mine.csv', '', 'other.csv') == {'train': 'mine.csv', 'test': 'other.csv'}


def test_a_validation_file_comes_before_the_test_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('mine.csv', 'test.csv', 'val.csv'):
        (tmp_path / name).touch()
    paths = find_raw('mine.csv', '', 'test.csv', 'val.csv')
    assert list(paths.items()) == [('train', 'mine.csv'), ('val', 'val.csv'), ('test', 'test.csv')]
    assert list(find_raw('demo', '', val_file='val.csv')) == ['train', 'val', 'test']


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    """A shell does not expand the one in --dataset=~/mine.csv."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))  # on Windows
    for name in ('mine.csv', 'test.csv', 'val.csv'):
        (tmp_path / name).touch()
    paths = find_raw('~/mine.csv', '', '~/test.csv', '~/val.csv')
    for split, name in (('train', 'mine.csv'), ('test', 'test.csv'), ('val', 'val.csv')):
        assert os.path.samefile(paths[split], tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    """The message names a file inside that may have been meant."""
    with pytest.raises(ValueError, match=f'{tmp_path} is a folder; give one of its files$'):
        find_raw(str(tmp_path), '')
    for name in ('README.md', 'b.jsonl.gz', 'c.csv'):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match='is a folder; give one of .* such as .*/b.jsonl.gz'):
        find_raw(str(tmp_path), '')


def test_a_file_of_ones_own_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.csv').touch()
    with pytest.raises(ValueError, match='there is no file nowhere.csv in .*; correct its path'):
        find_raw('nowhere.csv', '')
    with pytest.raises(ValueError, match='there is no file nowhere.csv in .*; correct its path'):
        find_raw('mine.csv', '', 'nowhere.csv')
    with pytest.raises(ValueError, match='there is no file nowhere.csv in .*; correct its path'):
        find_raw('mine.csv', '', '', 'nowhere.csv')


def test_a_test_file_takes_the_place_of_the_data_sets_own(tmp_path, monkeypatch):
    """The data set's own is not even downloaded then."""
    fetched = []
    test_file = tmp_path / 'other.tsv'
    test_file.touch()
    monkeypatch.setattr(datasets, 'DATA_DIR', str(tmp_path))
    monkeypatch.delenv('NANOSENTIMENT_RAW', raising=False)
    monkeypatch.setattr(datasets, 'fetch', lambda url, path, *args: fetched.append(url) or path)
    paths = find_raw('sst2', str(tmp_path), str(test_file))
    assert paths == {'train': str(tmp_path / 'sst2' / 'train.tsv'), 'test': str(test_file)}
    assert len(fetched) == 1


def test_a_bundled_file_that_is_missing_is_named(tmp_path, monkeypatch):
    """A download of it cannot be tried, because it has no address."""
    monkeypatch.setattr(datasets, 'DATA_DIR', str(tmp_path))
    monkeypatch.delenv('NANOSENTIMENT_RAW', raising=False)
    with pytest.raises(ValueError, match='demo/train.csv is missing.*NANOSENTIMENT_RAW'):
        find_raw('demo', '')
