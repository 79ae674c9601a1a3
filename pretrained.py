"""
What comes from elsewhere: files of the web, and (soon) checkpoints of the Hugging Face kind.
"""

import hashlib
import os
import queue
import shutil
import sys
import tempfile
import threading
import urllib.request
import zipfile

ANSWER_S = 7  # a server that has not answered by then counts as unreachable; it may stall twice


class Unreachable(OSError):
    """A file is neither here nor to be had."""


def fetch(url, path, digest, way_out=''):
    """
    url -> path, by a temporary name, checked against digest (md5 or sha256, hex) and renamed; returns path. For url#member
    the url is a zip archive, digest is the archive's, and member of it is what path will hold.
    Unreachable, with the way out, after 15 s at most where nobody answers.
    """
    url, _, member = url.partition('#')
    answer = queue.Queue()

    def ask():  # in a thread, because looking up a host name knows no timeout
        try:
            answer.put(urllib.request.urlopen(url, timeout=ANSWER_S))
        except Exception as e:
            answer.put(e)

    print(f'downloading {url}', file=sys.stderr)
    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answer.get(timeout=ANSWER_S + 1)
        if isinstance(response, Exception):
            raise response
        folder = os.path.dirname(os.path.abspath(path))
        os.makedirs(folder, exist_ok=True)
        with response, tempfile.TemporaryDirectory(dir=folder) as temp:
            part = os.path.join(temp, 'part')
            with open(part, 'wb') as f:
                shutil.copyfileobj(response, f)
            with open(part, 'rb') as f:
                found = hashlib.file_digest(f, 'md5' if len(digest) == 32 else 'sha256').hexdigest()
            if found != digest:
                raise OSError(f'what came has checksum {found}, not {digest}')
            if member:
                with zipfile.ZipFile(part) as archive:
                    part = archive.extract(member, temp)
            os.replace(part, path)
    except Exception as e:  # an address, a server, a line, an archive, a disk: they fail in a dozen ways
        why = ' '.join(str(e).split()) or f'no answer in {ANSWER_S} s'
        raise Unreachable(f'cannot download {url} ({why}); {way_out}'.rstrip('; ')) from None
    return path
