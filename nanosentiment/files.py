"""Small things about files: written whole or not at all, JSON and JSON lines, checksums."""

import hashlib
import json
import os


def write_whole(path, text):
    """
    Writes a text file so that a reader finds the old content or the new, never a part.

    The temporary name holds the process number, because two runs may end at the same time.
    """
    temporary = f'{path}.{os.getpid()}'
    with open(temporary, 'w', encoding='utf-8') as f:
        f.write(text)
    os.replace(temporary, path)


def read_json(path, remedy):
    """A JSON file -> what it holds. ValueError with the remedy if it is missing or broken."""
    try:
        with open(path, encoding='utf-8') as f:
            return json.load(f)
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read ({error}); {remedy}') from None


def write_json(path, content):
    """Writes a JSON file. It is no write_whole: an interruption leaves a part of it."""
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(content, f, indent=1)


def read_json_lines(path):
    """
    The objects of a .jsonl file in a list, [] if there is no such file.

    A last line that a kill has cut short is left out. Raises ValueError if another line is broken.
    """
    if not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as f:
        lines = f.read().split('\n')
    objects = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            objects.append(json.loads(line))
        except ValueError as error:
            # this line has no line end, because a kill has cut it
            if number == len(lines):
                break
            what = f'{path}, line {number} is not JSON ({error})'
            raise ValueError(f'{what}; remove that line') from None
    return objects


def checksum(path, algorithm='sha256'):
    """The checksum of a file, in hex digits."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, algorithm).hexdigest()
