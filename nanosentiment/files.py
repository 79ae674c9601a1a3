"""
Files: written whole or not at all, strict JSON, checksums, a lock on a folder.

Whatever another program reads later is written with open_whole, so that a kill, a full disk or an
error leaves the old file or none, but never a part of the new one.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
import zipfile

try:
    import fcntl
except ImportError:  # on Windows, where lock_folder does nothing
    fcntl = None

LOCK_FILE = '.lock'
HOST = re.sub(r'\W', '_', socket.gethostname())
# what temporary_name gives: <name>.nanosentiment-<host>-<process number>.tmp, or .part
TEMPORARY = re.compile(rf'(.+)\.nanosentiment-{HOST}-(\d+)\.(tmp|part)')
# errors of the system that say that there is no room; they do not name the file
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
ABANDONED_S = 60  # a temporary folder that is younger may be about to be locked
SEAL = 'sha256'  # the key of a JSON file under which the checksum of the rest stands

# -----------------------------------------------------------------------------
# whole or not at all


MAKE_ROOM = 'make room or choose another folder, then run this again'


@contextlib.contextmanager
def open_whole(path, mode='w', remedy=MAKE_ROOM, **options):
    """
    Opens a file for writing, which takes the place of an older one when the `with` ends well.

    mode is 'w' or 'wb', and options are those of open(). Until the end it has a temporary name;
    two processes may write the same file, and the later one wins. What a killed process has left
    of the same file is removed. ValueError with the remedy if the file cannot be written, for
    instance because the disk is full.
    """
    path = os.fspath(path)
    temporary = temporary_name(path, 'tmp')
    try:
        remove_leftovers(path)
        with create(temporary, mode, **options) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())  # else a power cut may keep the new name and lose the content
        os.replace(temporary, path)
    except OSError as error:
        # other errors are of another file, which was read or printed to meanwhile
        is_own = error.filename in (temporary, os.path.dirname(path) or '.')
        if not is_own and (error.filename is not None or error.errno not in NO_ROOM):
            raise
        raise cannot_be_written(path, error.strerror, remedy) from None
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)  # there is one only after an error


def temporary_name(path, ending):
    """The name of a file until it is complete: it tells whose it is, on which machine."""
    return f'{path}.nanosentiment-{HOST}-{os.getpid()}.{ending}'


def create(path, mode, **options):
    """Opens a file that must be new: 'x' follows no link that somebody may have laid there."""
    exclusive_mode = mode.replace('w', 'x')
    try:
        return open(path, exclusive_mode, **options)
    except FileExistsError:
        # left by a killed process that had our number; or a link, whose target stays
        os.remove(path)
        return open(path, exclusive_mode, **options)


def cannot_be_written(path, reason, remedy=MAKE_ROOM):
    """The ValueError for a file that cannot be written."""
    return ValueError(f'{path} cannot be written ({reason}); {remedy}')


def write_whole(path, text):
    """Writes a text file, see open_whole."""
    with open_whole(path, encoding='utf-8') as f:
        f.write(text)


def remove_leftovers(path):
    """
    Removes the temporary files that killed processes of this machine have left of a file. Those of
    other machines, which may share the folder, cannot be told from files in use.
    """
    folder, base_name = os.path.split(path)
    folder = folder or '.'
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        match = TEMPORARY.fullmatch(name)
        if match and match[1] == base_name and not is_running(int(match[2])):
            with contextlib.suppress(OSError):
                os.remove(os.path.join(folder, name))


def is_running(process_number):
    """Is there a process with this number? On Windows, where asking would end it, always yes."""
    if os.name == 'nt':
        return True
    try:
        os.kill(process_number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True


# -----------------------------------------------------------------------------
# one process at a time


def lock_folder(folder):
    """
    Locks a folder, which is made if need be, until this process ends, in whatever way.

    Returns the open lock file, which the caller must keep: the lock ends with it. ValueError if
    another process has the lock. File systems that know no locks, and Windows, go without.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, LOCK_FILE)
    try:
        lock = open(path, 'a+', encoding='utf-8')  # noqa: SIM115, it stays open
    except PermissionError:
        raise cannot_be_written(path, 'permission denied') from None
    has_lock = try_lock(lock)
    if has_lock is None:
        return lock
    if not has_lock:
        lock.seek(0)
        owner = lock.read().strip() or 'another process'
        lock.close()
        raise ValueError(
            f'{folder} is in use by {owner}; wait until it has ended, or set another --out_dir'
        )
    lock.truncate(0)
    lock.write(f'process {os.getpid()} on {HOST}\n')
    lock.flush()
    return lock


def try_lock(file):
    """Locks an open file -> whether that worked, or None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None  # a network file system without locks
    return True


@contextlib.contextmanager
def temporary_folder(parent, prefix):
    """
    A folder inside parent, which is made if need be, that is gone at the end of its `with`.

    Folders with the same prefix that killed processes have left are removed: nobody locks them.
    """
    os.makedirs(parent, exist_ok=True)
    remove_abandoned(parent, prefix)
    # Windows cannot delete a file that is still mapped into memory, as it may be while an error is
    # on its way out. The user must see that error and not the one of the deletion.
    with (
        tempfile.TemporaryDirectory(
            prefix=prefix, dir=parent, ignore_cleanup_errors=True
        ) as folder,
        lock_folder(folder),
    ):
        yield folder


def remove_abandoned(parent, prefix):
    """Removes the folders of temporary_folder whose processes were killed."""
    for name in os.listdir(parent):
        folder = os.path.join(parent, name)
        if name.startswith(prefix) and is_abandoned(os.path.join(folder, LOCK_FILE)):
            shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(lock_path):
    """Has the process ended that locked the folder of this lock file, without removing it?"""
    try:
        if time.time() - os.path.getmtime(lock_path) < ABANDONED_S:
            return False
        with open(lock_path) as lock:
            # where folders are shared, locks may count for one machine only
            is_ours = lock.read().endswith(f' on {HOST}\n')
            return is_ours and try_lock(lock) is True
    except OSError:  # no folder of ours, somebody else's, or one that is just being removed
        return False


# -----------------------------------------------------------------------------
# JSON


def to_json(content, **options):
    """The text of a JSON value. NaN and infinity, which JSON does not know, are a ValueError."""
    return json.dumps(content, allow_nan=False, **options)


def from_json(text):
    """
    JSON -> what it holds. ValueError for anything else, also for the NaN that the json module would
    take, and for brackets that are nested too deep for it.
    """

    def refuse(name):
        raise ValueError(f'{name} is no JSON')

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError('it is nested too deep') from None


def read_text(path, remedy):
    """A file in UTF-8 -> its text. ValueError with the remedy if it cannot be read."""
    try:
        with open(path, encoding='utf-8') as f:
            return f.read()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f'{path} cannot be read ({reason}); {remedy}') from None


def read_json(path, remedy):
    """A JSON file -> what it holds. ValueError with the remedy if it is missing or broken."""
    text = read_text(path, remedy)
    try:
        return from_json(text)
    except ValueError as error:
        raise ValueError(f'{path} cannot be read ({error}); {remedy}') from None


def write_json(path, content):
    """Writes a JSON file, see open_whole."""
    write_whole(path, to_json(content, indent=1) + '\n')


def seal(content):
    """The checksum of what a JSON file holds, a dict, without the checksum itself."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_sealed_json(path, content):
    """Writes a dict as a JSON file with a checksum of it, which read_sealed_json checks."""
    content = from_json(to_json(content))  # as it will be read: a tuple is a list then
    write_json(path, content | {SEAL: seal(content)})


def read_sealed_json(path, remedy, fields=None):
    """
    What write_sealed_json has written -> the dict. ValueError if anything in it has changed, or if
    it lacks one of the fields, {key: type}.
    """
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise ValueError(f'{path} is no JSON object; {remedy}')
    digest = content.pop(SEAL, None)  # files of older versions have none
    if digest is not None and digest != seal(content):
        raise ValueError(f'{path} was changed or damaged since it was written; {remedy}')
    try:
        check_fields(content, fields or {}, {}, 'it')
    except ValueError as error:
        raise ValueError(f'{path} cannot be used: {error}; {remedy}') from None
    return content


def check_fields(content, required, optional, name):
    """ValueError unless a dict has the required keys, and a value of the right type for each."""
    for key, types in {**required, **optional}.items():
        if key not in content:
            if key in required:
                raise ValueError(f'{name} lacks {key!r}')
            continue
        types = types if isinstance(types, tuple) else (types,)
        value = content[key]
        is_unwanted_bool = isinstance(value, bool) and bool not in types  # it is an int to Python
        if is_unwanted_bool or not isinstance(value, types):
            right = ' or '.join(kind.__name__ for kind in types)
            raise ValueError(f'{key!r} of {name} is {type(value).__name__}, not {right}')


def check_texts(values, name):
    """ValueError unless all values are str."""
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f'{name} are not all texts')


def read_json_lines(path):
    """
    The objects of a .jsonl file in a list, [] if there is no such file.

    A last line that a kill has cut short is left out. Raises ValueError if another line is broken.
    NaN and Infinity, which logs of older versions hold, are None.
    """
    if not os.path.exists(path):
        return []
    lines = read_text(path, 'remove it').split('\n')
    objects = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            objects.append(json.loads(line, parse_constant=lambda name: None))
        except (ValueError, RecursionError) as error:
            # this line has no line end, because a kill has cut it
            if number == len(lines):
                break
            what = f'{path}, line {number} is not JSON ({error})'
            raise ValueError(f'{what}; remove that line') from None
    return objects


def hide_home(content):
    """
    A JSON value with `~` for the home folder, wherever a path begins with it: who reads the file
    elsewhere need not know the user's name. Example: '/home/ann/mine.csv' -> '~/mine.csv'
    """
    if isinstance(content, dict):
        return {key: hide_home(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [hide_home(value) for value in content]
    home = os.path.expanduser('~')
    if not isinstance(content, str) or home in ('/', '~'):
        return content
    # at the begin of the text, or behind a blank, a quote or the = of a flag
    return re.sub(rf'(?<![^\s=\'"]){re.escape(home + os.sep)}', lambda match: '~/', content)


# -----------------------------------------------------------------------------
# checksums


def checksum(path, algorithm='sha256'):
    """The checksum of a file, in hex digits."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, algorithm).hexdigest()


def check_zip(path):
    """
    ValueError if a zip archive, such as a .pt file, is not what was written: each file in it has a
    checksum, which torch.load does not look at. Other files pass.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a header with any numbers in it: many types of exceptions
        raise ValueError(f'its archive is damaged: {error}') from None
    if damaged is not None:
        raise ValueError(f'the checksum of {damaged} in it is wrong')
