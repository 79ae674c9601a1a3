"""
One file from the web: resumed where it broke off, checked, and renamed only when it is whole.

    fetch('https://example.org/train.tsv', 'data/train.tsv', digest='9a3b...')
"""

import base64
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
from urllib.parse import unquote, urlsplit, urlunsplit

from nanosentiment.files import checksum, remove_leftovers, temporary_name

TIMEOUT_S = 7  # a server that says nothing for so long counts as unreachable
MAX_ATTEMPTS = 3  # in a row that bring nothing new
RETRY_WAIT_S = 0.6  # before the second attempt; twice as long before the third
SLOWEST = 1000  # bytes a second, on average over SLOW_S; a slower server is given up
SLOW_S = 30


class Unreachable(OSError):
    """A file could not be downloaded. `code` is the HTTP status, or 0 if the server gave none."""

    def __init__(self, message, code=0):
        super().__init__(message)
        self.code = code


# -----------------------------------------------------------------------------
# one request


class SameHostRedirect(urllib.request.HTTPRedirectHandler):
    """
    Follows redirects, but not from https to anything else, nor to ftp, and passes the access token
    on to the same host only.
    """

    def redirect_request(self, request, *details):
        redirected = super().redirect_request(request, *details)
        if redirected is None:
            return None
        allowed = ('https',) if request.type == 'https' else ('http', 'https')
        if redirected.type not in allowed:
            raise OSError(f'it redirects from {request.type} to {redirected.type}')
        # hubs redirect large files to other hosts, which must not see the token
        if (redirected.type, redirected.host) == (request.type, request.host):
            redirected.unredirected_hdrs.update(request.unredirected_hdrs)
        return redirected


def split_password(url):
    """
    'https://me:secret@host/x' -> 'https://host/x' and the header that says the same, 'Basic ...';
    an address without a user -> itself and ''. What is printed is the first of the two.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition('@')
    if not at:
        return url, ''
    encoded = base64.b64encode(unquote(user).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), f'Basic {encoded}'


def is_private(url):
    """Whether what is sent to this address stays secret: over https, and within this machine."""
    parts = urlsplit(url)
    return parts.scheme == 'https' or parts.hostname in ('localhost', '127.0.0.1', '::1')


def open_url(url, start, token):
    """The server's response to a request for the bytes of `url` from byte `start` on."""
    url, password_header = split_password(url)
    request = urllib.request.Request(url)
    if start > 0:
        request.add_header('Range', f'bytes={start}-')
    if password_header:
        request.add_unredirected_header('Authorization', password_header)
    elif token:
        request.add_unredirected_header('Authorization', f'Bearer {token}')
    return open_request(request, TIMEOUT_S)


def open_request(request, seconds):
    """The server's response to a request. OSError if its header takes longer than that."""
    opener = urllib.request.build_opener(SameHostRedirect)
    responses = queue.Queue()

    def wait_for_response():
        try:
            responses.put(opener.open(request, timeout=seconds))
        except Exception as error:
            responses.put(error)

    # Looking up a host name has no timeout, and a header may drip in, of which each byte comes in
    # time. So this happens in a thread that can be abandoned.
    threading.Thread(target=wait_for_response, daemon=True).start()
    wait_s = seconds + 1  # a little longer, so that the opener's own error comes first
    try:
        response = responses.get(timeout=wait_s)
    except queue.Empty:
        raise OSError(f'no answer in {wait_s:g} s') from None
    if isinstance(response, Exception):
        raise response
    return response


def read_response(response, seconds, max_bytes=10_000_000):
    """The body of a short response. TimeoutError if it takes longer, also if it only drips in."""
    deadline = time.monotonic() + seconds
    blocks = []
    n_bytes = 0
    while block := response.read1(1 << 16):
        blocks.append(block)
        n_bytes += len(block)
        if time.monotonic() > deadline:
            raise TimeoutError(f'no whole answer in {seconds:g} s')
        if n_bytes > max_bytes:
            raise OSError(f'the answer has more than {max_bytes:,} bytes')
    if response.length:  # the bytes that are still to come, which read1 does not miss
        raise OSError(f'it broke off {response.length:,} bytes before its end')
    return b''.join(blocks)


def save_response(response, part_path, start):
    """
    Appends the body of a response to the file `part_path`, which holds the first `start` bytes.

    Returns the size of the file afterwards, and the exception that ended the transfer, or None
    if the file is complete. Raises OSError if the file cannot be written, as on a full disk, and
    if the server is so slow that it had better be given up.
    """
    mode = 'ab'
    if not response.headers.get('Content-Range', '').startswith(f'bytes {start}-'):
        # this server does not resume: it sends the file from its beginning
        mode = 'wb'
        start = 0
    n_bytes = start
    length = response.headers.get('Content-Length')
    total = 0  # unknown
    if length:
        total = start + int(length)

    is_terminal = sys.stderr.isatty()
    print_interval = 1 if is_terminal else 30  # seconds
    next_print = time.time() + 1
    has_printed = False
    error = None
    window_begin = time.monotonic()  # of the last SLOW_S seconds
    window_bytes = 0
    # only now, so that a file that the server does not have leaves no folder
    os.makedirs(os.path.dirname(os.path.abspath(part_path)), exist_ok=True)
    with open(part_path, mode) as f:
        while True:
            # only what the connection raises is a broken transfer, not a full disk
            try:
                block = response.read1(1 << 20)
            except (OSError, http.client.HTTPException) as transfer_error:
                error = transfer_error
                break
            if not block:
                break
            f.write(block)
            n_bytes += len(block)
            window_bytes += len(block)
            window_s = time.monotonic() - window_begin
            if window_s > SLOW_S:
                if window_bytes < SLOWEST * window_s:
                    raise OSError(f'it sends less than {SLOWEST:,} bytes a second')
                window_begin = time.monotonic()
                window_bytes = 0
            if time.time() > next_print:
                print_progress(n_bytes, total, is_terminal)
                next_print = time.time() + print_interval
                has_printed = True
    if has_printed and is_terminal:
        print(file=sys.stderr)  # what is printed next gets a line of its own

    # without Content-Length the body came in chunks, and http.client has seen the last of them
    if error is None and total not in (0, n_bytes):
        error = OSError(f'it broke off after {n_bytes:,} of {total:,} bytes')
    return n_bytes, error


def print_progress(n_bytes, total, is_terminal):
    """Prints on stderr how much has come; a terminal's line is overwritten by the next one."""
    megabytes = f'{n_bytes / 1e6:,.0f} MB'
    if total > 0:
        megabytes = f'{n_bytes / 1e6:,.0f} of {total / 1e6:,.0f} MB'
    end = '\r' if is_terminal else '\n'
    print(megabytes, end=end, file=sys.stderr, flush=True)


# -----------------------------------------------------------------------------
# as many requests as it takes


def size_of(path):
    """The number of bytes of a file, 0 if it is not there."""
    if not os.path.exists(path):
        return 0
    return os.path.getsize(path)


def request_rest(url, part_path, token, is_first):
    """
    One request for what `part_path` still lacks. Returns the same as `save_response`.

    is_first: whether this is the first request; only then a failure to connect is raised.
    """
    start = size_of(part_path)
    try:
        response = open_url(url, start, token)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start > 0:
            # the server has nothing from byte `start` on: either this is the whole file already
            if error.headers.get('Content-Range') == f'bytes */{start}':
                return start, None
            # or it is longer, and so not the beginning of that file
            os.remove(part_path)
            return 0, error
        if error.code >= 500 or error.code == 429:
            return start, error  # the server is overloaded
        raise
    except (OSError, http.client.HTTPException) as error:
        if is_first:
            raise
        return start, error  # the server has answered before
    with response:
        return save_response(response, part_path, start)


def download_with_retries(url, part_path, token):
    """
    Downloads `url` into the file `part_path`, from where that file ends.

    A transfer that breaks off, and a server that is overloaded, are tried again. So is a connection
    that fails after the server has answered once. A server that cannot be reached by the first
    request is not tried again: whoever works without a network should not wait to be told so.
    """
    most_bytes = size_of(part_path)
    n_failed = 0
    is_first = True
    while True:
        n_bytes, error = request_rest(url, part_path, token, is_first)
        is_first = False
        if error is None:
            return
        if n_bytes > most_bytes:
            most_bytes = n_bytes
            n_failed = 0
        else:
            n_failed += 1
        if n_failed == MAX_ATTEMPTS:
            raise error
        time.sleep(n_failed * RETRY_WAIT_S)


def fetch(url, path, digest='', remedy='', keep=False, token=''):
    """
    Downloads `url` to `path` and returns `path`.

    The file arrives as `path`.part. If its checksum is `digest`, it is renamed to `path`.
    digest: md5 or sha256 in hex digits; if it is '', the sha256 of the download is printed.
    keep: the .part file outlives a failure, and the next call continues it.
    token: an access token, which only the server of `url` sees.
    For a url 'archive.zip#member' the digest is the archive's, and the member goes to `path`.

    Raises Unreachable, whose message ends with `remedy`: what the user can do. A server that does
    not answer is given up after TIMEOUT_S + 1 seconds.
    """
    url, _, member = url.partition('#')
    shown_url, _ = split_password(url)
    remove_leftovers(path)
    part_path = f'{path}.part' if keep else temporary_name(path, 'part')
    algorithm = 'md5' if len(digest) == 32 else 'sha256'
    is_received = False
    print(f'downloading {shown_url}', file=sys.stderr)
    try:
        download_with_retries(url, part_path, token)
        is_received = True
        received_digest = checksum(part_path, algorithm)
        if digest and received_digest != digest:
            raise OSError(f'the downloaded file has checksum {received_digest}, not {digest}')
        if not digest:
            print(f'{shown_url} has sha256 {received_digest}', file=sys.stderr)
        if member:
            extract_member(part_path, member, path)
        else:
            os.replace(part_path, path)
    # a bad address, the server, the connection, the archive, the disk: many types of exceptions
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        message = f'cannot download {shown_url} ({reason})'
        if remedy:
            message += f'; {remedy}'
        raise Unreachable(message, getattr(error, 'code', 0)) from None
    finally:
        # a complete file that did not pass must not be continued, so it goes in any case
        if os.path.exists(part_path) and (is_received or not keep):
            os.remove(part_path)
    return path


def extract_member(archive_path, member, path):
    """Writes one member of a zip archive to `path`, by way of a temporary folder beside it."""
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=folder) as temporary_folder:
        with zipfile.ZipFile(archive_path) as archive:
            extracted = archive.extract(member, temporary_folder)
        os.replace(extracted, path)
