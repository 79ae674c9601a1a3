"""
One file from the web: resumed where it broke off, checked, and renamed only when it is whole.

    fetch('https://example.org/train.tsv', 'data/train.tsv', digest='9a3b...')
"""

import http.client
import os
import queue
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile

from nanosentiment.files import checksum

TIMEOUT_S = 7  # a server that says nothing for so long counts as unreachable
MAX_ATTEMPTS = 3  # in a row that bring nothing new


class Unreachable(OSError):
    """A file could not be downloaded. `code` is the HTTP status, or 0 if the server gave none."""

    def __init__(self, message, code=0):
        super().__init__(message)
        self.code = code


# -----------------------------------------------------------------------------
# one request


class SameHostRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and passes the access token on to the same host only."""

    def redirect_request(self, request, *details):
        redirected = super().redirect_request(request, *details)
        if redirected is None:
            return None
        # hubs redirect large files to other hosts, which must not see the token
        if (redirected.type, redirected.host) == (request.type, request.host):
            redirected.unredirected_hdrs.update(request.unredirected_hdrs)
        return redirected


def open_url(url, start, token):
    """The server's response to a request for the bytes of `url` from byte `start` on."""
    request = urllib.request.Request(url)
    if start > 0:
        request.add_header('Range', f'bytes={start}-')
    if token:
        request.add_unredirected_header('Authorization', f'Bearer {token}')
    opener = urllib.request.build_opener(SameHostRedirect)
    answers = queue.Queue()

    def wait_for_answer():
        try:
            answers.put(opener.open(request, timeout=TIMEOUT_S))
        except Exception as error:
            answers.put(error)

    # looking up a host name has no timeout, so it happens in a thread that can be abandoned
    threading.Thread(target=wait_for_answer, daemon=True).start()
    answer = answers.get(timeout=TIMEOUT_S + 1)
    if isinstance(answer, Exception):
        raise answer
    return answer


def save_response(response, part, start):
    """
    Appends the body of a response to the file `part`, which holds the first `start` bytes.

    Returns the size of `part` afterwards, and the exception that ended the transfer, or None
    if the file is complete.
    """
    with open(part, 'ab') as f:
        if not response.headers.get('Content-Range', '').startswith(f'bytes {start}-'):
            # this server ignores ranges and sends the file from its beginning
            f.truncate(0)
            start = 0
        length = response.headers.get('Content-Length')
        total = start + int(length) if length else 0
        next_print = time.time() + 1
        try:
            while block := response.read1(1 << 20):
                f.write(block)
                if time.time() > next_print:
                    next_print = time.time() + print_progress(f.tell(), total)
        except (OSError, http.client.HTTPException) as error:
            return f.tell(), error
        n_bytes = f.tell()
    # without Content-Length the body came in chunks, and http.client has seen the last of them
    if total not in (0, n_bytes):
        return n_bytes, OSError(f'it broke off after {n_bytes:,} of {total:,} bytes')
    return n_bytes, None


def print_progress(n_bytes, total):
    """Prints how much has come, on stderr. Returns the number of seconds until the next print."""
    megabytes = f'{n_bytes / 1e6:,.0f} of {total / 1e6:,.0f} MB'
    if sys.stderr.isatty():
        print(megabytes, end='\r', file=sys.stderr, flush=True)
        return 1
    print(megabytes, file=sys.stderr, flush=True)
    return 30


# -----------------------------------------------------------------------------
# as many requests as it takes


def attempt(url, part, token):
    """One request for what `part` still lacks. Returns the same as `save_response`."""
    start = os.path.getsize(part) if os.path.exists(part) else 0
    try:
        response = open_url(url, start, token)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start > 0:
            # the range does not exist: `part` is longer than the file, so it is no beginning of it
            os.remove(part)
        elif error.code < 500 and error.code != 429:
            raise
        return start, error
    with response:
        return save_response(response, part, start)


def receive(url, part, token):
    """
    Downloads `url` into the file `part`, from where that file ends.

    A transfer that breaks off, and a server that is overloaded, are tried again.
    """
    most_bytes = 0
    n_failed = 0
    while True:
        n_bytes, error = attempt(url, part, token)
        if error is None:
            return
        if n_bytes > most_bytes:
            most_bytes = n_bytes
            n_failed = 0
        else:
            n_failed += 1
        if n_failed == MAX_ATTEMPTS:
            raise error
        time.sleep(n_failed * TIMEOUT_S / 12)


def fetch(url, path, digest='', way_out='', keep=False, token=''):
    """
    Downloads `url` to `path` and returns `path`.

    The file is received as `path`.part, its checksum compared with `digest`, and then renamed.
    digest: md5 or sha256 in hex digits; '' prints the sha256 of what came instead.
    keep: the part outlives a failure, and the next call continues it.
    token: an access token, which only the server of `url` sees.
    For a url 'archive.zip#member' the digest is the archive's, and the member goes to `path`.

    Raises Unreachable, whose message ends with `way_out`: what the user can do. A server that
    does not answer is given up after TIMEOUT_S + 1 seconds.
    """
    url, _, member = url.partition('#')
    folder = os.path.dirname(os.path.abspath(path))
    part = f'{path}.part' if keep else f'{path}.{os.getpid()}.part'
    algorithm = 'md5' if len(digest) == 32 else 'sha256'
    is_received = False
    print(f'downloading {url}', file=sys.stderr)
    try:
        os.makedirs(folder, exist_ok=True)
        receive(url, part, token)
        is_received = True
        received_digest = checksum(part, algorithm)
        if digest and received_digest != digest:
            raise OSError(f'what came has checksum {received_digest}, not {digest}')
        if not digest:
            print(f'{path} has sha256 {received_digest}', file=sys.stderr)
        if member:
            extract_member(part, member, path)
        else:
            os.replace(part, path)
    except (
        Exception
    ) as error:  # address, server, connection, archive, disk: many types of exceptions
        reason = ' '.join(str(error).split()) or f'no answer in {TIMEOUT_S} s'
        code = getattr(error, 'code', 0)
        if code in (401, 403):
            reason += ', gated or misspelt? HF_TOKEN opens gated names'
        message = f'cannot download {url} ({reason})'
        if way_out:
            message += f'; {way_out}'
        raise Unreachable(message, code) from None
    finally:
        # a complete file that did not pass must not be continued, so it goes in any case
        if os.path.exists(part) and (is_received or not keep):
            os.remove(part)
    return path


def extract_member(archive_path, member, path):
    """Writes one member of a zip archive to `path`, by way of a temporary folder beside it."""
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=folder) as temporary_folder:
        with zipfile.ZipFile(archive_path) as archive:
            extracted = archive.extract(member, temporary_folder)
        os.replace(extracted, path)
