"""Files: written whole or not at all, strict JSON with a checksum, a lock that ends with us."""

import errno
import json
import os
import random
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from nanosentiment.files import (
    HOST,
    check_fields,
    check_zip,
    from_json,
    hide_home,
    lock_folder,
    open_whole,
    read_json,
    read_json_lines,
    read_sealed_json,
    temporary_folder,
    temporary_name,
    to_json,
    write_sealed_json,
    write_whole,
)

# -----------------------------------------------------------------------------
# whole or not at all


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.txt'
    write_whole(path, 'old')
    with pytest.raises(ZeroDivisionError), open_whole(path, encoding='utf-8') as f:
        f.write('new')
        raise ZeroDivisionError
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['x.txt']


def test_what_cannot_be_written_is_one_line_with_its_name(tmp_path, monkeypatch):
    def fail(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(ValueError) as error:
        write_whole(tmp_path / 'x.txt', 'new')
    expected = f'{tmp_path}/x.txt cannot be written (No space left on device); make room'
    assert str(error.value).startswith(expected)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / 'x.txt').mkdir()
    with pytest.raises(ValueError, match=r'x\.txt cannot be written \(Is a directory\)'):
        write_whole(tmp_path / 'x.txt', 'new')


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path):
    """Who can write into the folder could else let us destroy any file of ours."""
    victim = tmp_path / 'victim'
    victim.write_text('precious')
    os.symlink(victim, temporary_name(tmp_path / 'x.txt', 'tmp'))
    write_whole(tmp_path / 'x.txt', 'new')
    assert victim.read_text() == 'precious'
    assert (tmp_path / 'x.txt').read_text() == 'new'
    assert not os.path.islink(tmp_path / 'x.txt')


def test_two_processes_may_write_the_same_file(tmp_path):
    """Under one temporary name, each would take the other's half for a leftover."""
    path = tmp_path / 'x.txt'
    code = f'from nanosentiment.files import write_whole; write_whole({str(path)!r}, "theirs")'
    with open_whole(path) as file:
        file.write('ours, ')
        subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
        assert path.read_text() == 'theirs'
        file.write('all of it')
    assert path.read_text() == 'ours, all of it'
    assert os.listdir(tmp_path) == ['x.txt']


def test_what_a_killed_process_has_left_of_a_file_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    ours = f'nanosentiment-{HOST}'
    others = {
        f'last.pt.{ours}-{os.getppid()}.tmp',  # it still runs
        f'best.pt.{ours}-{dead.pid}.tmp',  # of another file
        f'last.pt.nanosentiment-elsewhere-{dead.pid}.tmp',
        f'last.pt.{dead.pid}.tmp',  # somebody else's, such as x.csv.20231105.tmp
    }
    for name in (f'last.pt.{ours}-{dead.pid}.tmp', *others):
        (tmp_path / name).write_text('')
    write_whole(tmp_path / 'last.pt', 'new')
    assert set(os.listdir(tmp_path)) == {'last.pt', *others}


@pytest.mark.parametrize('error', [FileNotFoundError, PermissionError])
def test_a_folder_that_cannot_be_looked_at_is_left_alone(tmp_path, monkeypatch, error):
    """Another process may just be removing it, or it may be that of another user."""
    (tmp_path / 'work-1').mkdir()

    def refuse(path):
        raise error

    monkeypatch.setattr('os.path.getmtime', refuse)
    with temporary_folder(tmp_path, 'work-') as folder:
        assert os.path.isdir(folder)
    assert (tmp_path / 'work-1').exists()


# -----------------------------------------------------------------------------
# the lock


def lock_elsewhere(folder):
    """Another process locks the folder, says so, and waits to be killed."""
    code = (
        'import sys, time; from nanosentiment.files import lock_folder; '
        f'lock = lock_folder({str(folder)!r}); print("locked", flush=True); time.sleep(600)'
    )
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, cwd=ROOT)
    process.stdout.readline()
    return process


@pytest.mark.skipif(os.name == 'nt', reason='there is no lock on Windows')
def test_a_lock_names_its_process_and_ends_with_it(tmp_path):
    """Killed with -9, a process cannot tidy up, and yet the folder must be free then."""
    other = lock_elsewhere(tmp_path)
    with pytest.raises(ValueError) as error:
        lock_folder(tmp_path)
    assert f'{tmp_path} is in use by process {other.pid}' in str(error.value)
    assert 'another --out_dir' in str(error.value)
    other.kill()
    other.wait()
    other.stdout.close()
    lock_folder(tmp_path).close()


# -----------------------------------------------------------------------------
# JSON


@pytest.mark.parametrize('text', ['NaN', '[Infinity]', '{"a": -Infinity}', '[' * 100_000, '{"a"'])
def test_what_is_no_json_is_refused(text):
    """Python's json module reads and writes NaN, which no other program does."""
    with pytest.raises(ValueError):
        from_json(text)


def test_numbers_that_json_does_not_know_are_not_written():
    with pytest.raises(ValueError):
        to_json({'loss': float('nan')})


def test_any_change_of_a_sealed_file_is_noticed(tmp_path):
    """One flipped bit in evaluation.json would else be another accuracy in a report."""
    path = tmp_path / 'evaluation.json'
    content = {'accuracy': 0.875, 'labels': ['a', 'ü'], 'n': 8, 'per': {'1': (1, 2)}}
    write_sealed_json(path, content)
    assert read_sealed_json(path, '') == {**content, 'per': {'1': [1, 2]}}

    whole = path.read_bytes()
    rng = random.Random(0)
    n_refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read = read_sealed_json(path, 'evaluate again')
        except ValueError as error:
            assert str(error).startswith(str(path)) and 'evaluate again' in str(error)
            n_refused += 1
            continue
        # white space between the values, or the key of the checksum itself
        assert {key: read.get(key) for key in content} == {**content, 'per': {'1': [1, 2]}}
    assert n_refused > 200


def test_a_sealed_file_must_have_its_fields(tmp_path):
    """Somebody may have written it with another content and a checksum of that."""
    path = tmp_path / 'x.json'
    write_sealed_json(path, {'n': '3'})
    with pytest.raises(ValueError, match="'n' of it is str, not int; write it again"):
        read_sealed_json(path, 'write it again', {'n': int})


def test_a_file_of_an_older_version_has_no_checksum(tmp_path):
    (tmp_path / 'meta.json').write_text('{"rows": 3}')
    assert read_sealed_json(tmp_path / 'meta.json', '') == {'rows': 3}


def test_a_missing_or_broken_file_names_the_remedy(tmp_path):
    (tmp_path / 'broken.json').write_text('{')
    (tmp_path / 'latin.json').write_bytes(b'"\xe4"')
    for name in ('broken.json', 'latin.json', 'missing.json'):
        with pytest.raises(ValueError, match=f'{name} cannot be read .*; do this'):
            read_json(tmp_path / name, 'do this')


def test_a_cut_last_line_is_left_out_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"iter": 1}\n{"iter": 2}\n{"it')
    assert read_json_lines(path) == [{'iter': 1}, {'iter': 2}]
    path.write_text('{"iter": 1, "norm": Infinity}\n')  # of an older version, with float16
    assert read_json_lines(path) == [{'iter': 1, 'norm': None}]
    path.write_text('{"iter": 1}\n{"iter": }\n{"iter": 3}\n')
    with pytest.raises(ValueError, match=r'metrics\.jsonl, line 2 is not JSON'):
        read_json_lines(path)


def test_fields_must_be_there_and_of_their_types():
    check_fields({'n': 1, 'more': None}, {'n': int}, {'name': str}, 'it')
    with pytest.raises(ValueError, match="it lacks 'n'"):
        check_fields({}, {'n': int}, {}, 'it')
    with pytest.raises(ValueError, match="'n' of it is bool, not int"):
        check_fields({'n': True}, {'n': int}, {}, 'it')
    with pytest.raises(ValueError, match="'name' of it is int, not str"):
        check_fields({'n': 1, 'name': 2}, {'n': int}, {'name': str}, 'it')


# -----------------------------------------------------------------------------
# checksums


def test_a_zip_archive_is_checked_and_other_files_pass(tmp_path):
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('numbers', bytes(range(256)) * 100)
    check_zip(path)
    damaged = bytearray(path.read_bytes())
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='the checksum of numbers in it is wrong'):
        check_zip(path)
    (tmp_path / 'text').write_text(json.dumps('no archive'))
    check_zip(tmp_path / 'text')


def test_the_home_folder_is_hidden_where_a_path_begins(tmp_path, monkeypatch):
    """evaluation.json is shared, and a user's name is nobody's business."""
    monkeypatch.setenv('HOME', '/home/ann')
    content = {
        'run': '/home/ann/project/out/run',
        'command': "python train.py --dataset=/home/ann/x.csv '--text_file=/mnt/home/ann/y'",
        'files': ['/mnt/home/ann/x.csv', 'out/x.csv', 3],
    }
    assert hide_home(content) == {
        'run': '~/project/out/run',
        'command': "python train.py --dataset=~/x.csv '--text_file=/mnt/home/ann/y'",
        'files': ['/mnt/home/ann/x.csv', 'out/x.csv', 3],
    }
