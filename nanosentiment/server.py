"""
The page to try a run: a small web server of the standard library, for a browser on this machine.

    serve(classifier, port=8000)

    GET  /          the page: nanosentiment/web/try.html, with /try.css and /try.js
    GET  /about     what the run is, as JSON
    POST /classify  a JSON list of texts -> a JSON list of answers, see Classifier.classify;
                    ?explain=1 adds what explain.explain gives
    POST /table     ?name=rows.csv and the file's bytes -> the table with answers, see answers.py;
                    ?text_column= and ?text_pair_column= as in sample_classify.py

$ curl http://127.0.0.1:8000/classify --json '["It never arrived."]'
$ curl 'http://127.0.0.1:8000/table?name=rows.csv' --data-binary @rows.csv \\
       -H 'Content-Type: application/octet-stream' -o answers.csv

An error is a JSON object with one line: {"error": "what, where; remedy"}.

Each connection has a thread. A single other thread has the model, and computes for one request at a
time, in the order in which they came. Many texts take several turns, so that a long table does not
keep others waiting.

A page of another site that is open in the same browser can neither read nor send anything here:
the Host header must name this machine, an Origin header this server, and a browser asks before it
sends these content types elsewhere, which is answered with 405. But other users of this machine can
connect, as there is no password.
"""

import contextlib
import errno
import os
import re
import selectors
import signal
import socket
import socketserver
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, quote, urlsplit

from configurator import print_error
from nanosentiment.answers import (
    NO_ANSWER,
    AnswerCounts,
    AnswerWriter,
    all_columns_of,
    answer_rows,
    find_text_columns,
    format_of,
)
from nanosentiment.explain import explain
from nanosentiment.files import from_json, temporary_folder, to_json
from nanosentiment.repeats import stop_signals
from nanosentiment.tables import SURROGATE, Table, find_extension

ADDRESS = '127.0.0.1'  # which only this machine can reach

# limits of a request
MAX_TEXTS = 1000
MAX_EXPLAINED_TEXTS = 50
MAX_EXPLAINED_CHARACTERS = 20_000  # of each text
MAX_BYTES = {'/classify': 4_000_000, '/table': 50_000_000}
CONTENT_TYPES = {'/classify': 'application/json', '/table': 'application/octet-stream'}

# limits of the server
MAX_WAITING = 32  # requests, besides the one that is computed
TEXTS_PER_TURN = 128
TIMEOUT_S = 30  # of a client that sends or reads nothing
DROP_S = 5  # for which the rest of a refused request is read
END_S = 10  # for which the last answers are sent
PART_BYTES = 1 << 16  # that are read or sent at once

WEB_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'web')
# path: (file, content type)
PAGE_FILES = {
    '/': ('try.html', 'text/html; charset=utf-8'),
    '/try.css': ('try.css', 'text/css; charset=utf-8'),
    '/try.js': ('try.js', 'text/javascript; charset=utf-8'),
}
METHODS = dict.fromkeys([*PAGE_FILES, '/about'], 'GET') | dict.fromkeys(MAX_BYTES, 'POST')
PARAMETERS = {'/classify': ['explain'], '/table': ['name', 'text_column', 'text_pair_column']}

HOST = re.compile(r'(127\.0\.0\.1|localhost)(:\d+)?', re.IGNORECASE)
HEADERS = {
    # Nothing from elsewhere and nothing inline. The icon of the page is a data: URL.
    'Content-Security-Policy': (
        "default-src 'self'; img-src data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    'X-Content-Type-Options': 'nosniff',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}

TABLE_TYPES = {
    'csv': ('.csv', 'text/csv; charset=utf-8'),
    'tsv': ('.tsv', 'text/tab-separated-values; charset=utf-8'),
    'json': ('.jsonl', 'application/x-ndjson'),
}
MAX_SUMMARY_LABELS = 20
MAX_SUMMARY_COLUMNS = 500


class RequestError(Exception):
    """What a client gets in place of an answer: a status of HTTP, and one line with a remedy."""

    def __init__(self, status, message, **more):
        super().__init__(message)
        self.status = status
        self.content = {'error': ' '.join(message.split())} | more


# -----------------------------------------------------------------------------
# the server


def serve(classifier, port=8000, threshold=0.0, batch_size=64):
    """
    Serves the page until Ctrl-C, SIGTERM or the end of the terminal. What is being computed then is
    finished and sent. ValueError if the port cannot be used; port 0 takes any free one.
    """
    server = make_server(classifier, port, threshold, batch_size)
    if hasattr(signal, 'SIGPIPE'):
        # A client that has gone away is to be an error in its own thread. sample_classify.py lets
        # this signal end the program, as is right for a pipe.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    previous = {number: signal.getsignal(number) for number in stop_signals()}

    def end(signal_number, frame):
        for number in previous:
            signal.signal(number, signal.SIG_DFL)  # a second Ctrl-C ends the program at once
        # in a thread, because it waits for serve_forever, which this handler has interrupted
        threading.Thread(target=server.shutdown).start()

    for number in previous:
        signal.signal(number, end)
    print_error(f'try it at {server.address} - Ctrl-C ends it')
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    print_error(f'{server.address} is closed')


def make_server(classifier, port=8000, threshold=0.0, batch_size=64):
    """A server that listens; serve_forever() answers. ValueError if the port cannot be used."""
    assert 0 <= port <= 65535, port
    cleanup = contextlib.ExitStack()
    try:
        folder = cleanup.enter_context(
            temporary_folder(tempfile.gettempdir(), 'nanosentiment-server-')
        )
    except OSError as error:
        what = f'no folder can be made in {tempfile.gettempdir()} ({error.strerror})'
        raise ValueError(f'{what}; make room, or set TMPDIR to another folder') from None
    try:
        return ClassifierServer(classifier, port, threshold, batch_size, folder, cleanup)
    except OSError as error:
        cleanup.close()
        if error.errno == errno.EADDRINUSE:
            what = f'port {port} of {ADDRESS} is in use by another program'
        else:
            what = f'port {port} of {ADDRESS} cannot be used ({error.strerror})'
        raise ValueError(f'{what}; choose another with --port=8001, or any with --port=0') from None


# not http.server's own class, which asks for the name of this machine: without a network it waits
class ClassifierServer(socketserver.ThreadingTCPServer):
    """Listens on a port of this machine, and has the one thread that computes."""

    # A port can be used again at once. On Windows it could also be taken from another program.
    allow_reuse_address = os.name == 'posix'
    daemon_threads = True  # a connection that is kept open does not keep the program running
    request_queue_size = 128  # connections that are not accepted yet

    def __init__(self, classifier, port, threshold, batch_size, folder, cleanup):
        self.classifier = classifier
        self.threshold = threshold
        self.batch_size = batch_size
        # One thread and not a lock: it takes the requests in their order, and torch keeps threads
        # of its own for each thread that calls it.
        self.model_thread = ThreadPoolExecutor(max_workers=1)
        self.n_requests = 0  # that wait, are computed, or are being answered
        self.is_ending = False
        self.has_changed = threading.Condition()  # n_requests and is_ending
        self.folder = folder  # for tables
        self.cleanup = cleanup  # removes it
        super().__init__((ADDRESS, port), Handler)

    @property
    def address(self):
        return f'http://{ADDRESS}:{self.server_address[1]}'

    @contextlib.contextmanager
    def place_in_queue(self):
        """A request waits and is answered inside the `with`; status 503 if too many do."""
        with self.has_changed:
            self.refuse_if_ending()
            if self.n_requests > MAX_WAITING:
                what = f'{MAX_WAITING} requests are waiting for the model'
                raise RequestError(503, f'{what}; try again in a second')
            self.n_requests += 1
        try:
            yield
        finally:
            with self.has_changed:
                self.n_requests -= 1
                self.has_changed.notify_all()

    def compute(self, function, *args):
        """function(*args) in the model's thread, when it is its turn."""
        with self.has_changed:
            self.refuse_if_ending()
            future = self.model_thread.submit(function, *args)
        try:
            return future.result()
        except CancelledError:
            self.refuse_if_ending()
            raise
        except ValueError as error:  # the classifier's own, in one line
            raise RequestError(500, str(error)) from None

    def refuse_if_ending(self):
        if self.is_ending:
            raise RequestError(503, 'the server is ending; start it again')

    def server_close(self):
        """Frees the port, finishes what is being computed, and sends the last answers."""
        super().server_close()
        with self.has_changed:
            self.is_ending = True
        self.model_thread.shutdown(cancel_futures=True)
        with self.has_changed:
            self.has_changed.wait_for(lambda: self.n_requests == 0, END_S)
        self.cleanup.close()

    def handle_error(self, request, client_address):
        """Called after an exception in a connection's thread."""
        if not isinstance(sys.exception(), ConnectionError):  # that is a client that has gone away
            traceback.print_exc()


# -----------------------------------------------------------------------------
# a connection


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other."""

    protocol_version = 'HTTP/1.1'  # in which a connection serves several requests
    server_version = 'nanoSentiment'
    sys_version = ''
    timeout = TIMEOUT_S
    disable_nagle_algorithm = True  # else each answer would take 40 ms longer

    def answer_request(self):
        """Answers a request of any method."""
        self.n_unread = 0  # bytes of the request's body
        try:
            self.n_unread = self.body_size()
            self.check_sender()
            path, query = self.check_target()
            if path == '/classify':
                self.classify_texts(query)
            elif path == '/table':
                self.label_table(query)
            elif path == '/about':
                self.send_json(200, self.about())
            else:
                self.send_page_file(path)
        except RequestError as error:
            self.send_json(error.status, error.content)
        except (ConnectionError, TimeoutError):
            raise  # nobody is there to be answered
        except OSError as error:
            what = f'a temporary file cannot be written or read ({error.strerror})'
            self.send_json(507, {'error': f'{what}; is there room in {tempfile.gettempdir()}?'})
        except Exception:
            traceback.print_exc()
            what = 'an error that nobody has foreseen'
            self.send_json(500, {'error': f'{what}; see the terminal where the server runs'})
        if self.n_unread > 0:
            self.drop_body()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer_request

    # checks

    def body_size(self):
        """The number of bytes in the body of the request."""
        if 'Transfer-Encoding' in self.headers:
            self.n_unread = max(MAX_BYTES.values())  # nobody knows
            raise RequestError(411, 'the size of the body is unknown; send it with Content-Length')
        size = self.headers.get('Content-Length', '0')
        if not re.fullmatch('[0-9]{1,18}', size):
            self.close_connection = True
            raise RequestError(400, f'Content-Length {size!r} is no number; correct it')
        return int(size)

    def check_sender(self):
        """RequestError 403 for what a page of another site has made the browser send."""
        host = self.headers.get('Host', '')
        if not HOST.fullmatch(host):
            # a site may give its own name the address of this machine ("DNS rebinding")
            what = f'this server answers to {ADDRESS} and localhost, not to {host!r}'
            raise RequestError(403, f'{what}; open {self.server.address}')
        origin = self.headers.get('Origin')
        if origin is not None and origin != f'http://{host}':
            what = f'a page of {origin!r} may not use this server'
            raise RequestError(403, f'{what}; open {self.server.address}')

    def check_target(self):
        """The path and the parameters asked for. RequestError if there is no such thing."""
        path, query = split_url(self.path)
        method = METHODS.get(path)
        if method is None:
            raise RequestError(404, f'there is nothing at {path}; the page is at /')
        if self.command != method:
            raise RequestError(405, f'{path} does not know {self.command}; send {method}')
        known = PARAMETERS.get(path, [])
        for name in query:
            if name not in known:
                what = f'{path} has no parameter {name!r}'
                raise RequestError(400, f'{what}; leave it out, it knows {known or "none"}')
        if method == 'POST':
            self.check_body(path)
        return path, query

    def check_body(self, path):
        """RequestError for a body that the path does not take."""
        if 'Content-Length' not in self.headers:
            raise RequestError(411, f'{path} needs a body; send it with Content-Length')
        content_type = CONTENT_TYPES[path]
        if self.headers.get_content_type() != content_type:
            what = f'{path} does not take {self.headers.get_content_type()}'
            raise RequestError(415, f'{what}; send it with Content-Type: {content_type}')
        if self.n_unread > MAX_BYTES[path]:
            what = f'{path} takes {MAX_BYTES[path]:,} bytes at most, not {self.n_unread:,}'
            raise RequestError(413, f'{what}; use sample_classify.py --input=FILE')

    # texts

    def about(self):
        """What the page has to know."""
        classifier = self.server.classifier
        return {
            'run': str(classifier.path),
            'dataset': classifier.checkpoint['dataset'],
            'labels': classifier.labels,
            'has_pairs': classifier.has_pairs,
            'windows': classifier.windows,
            'threshold': self.server.threshold,
            'max_table_bytes': MAX_BYTES['/table'],
        }

    def classify_texts(self, query):
        """A JSON list of texts or pairs -> an answer for each, in their order."""
        explain_flag = query.get('explain', '0')
        if explain_flag not in ('0', '1'):
            raise RequestError(400, f'explain={explain_flag} is unknown; set it to 0 or 1')
        is_explained = explain_flag == '1'
        texts = parse_texts(b''.join(self.read_body()), self.server.classifier.has_pairs)
        check_number_of_texts(texts, is_explained)

        with self.server.place_in_queue():
            to_classify = [text for text in texts if not is_blank(text)]
            new_answers = iter(self.answer_texts(to_classify))
            answers = []
            for text in texts:
                if is_blank(text):
                    answer = {'text': text} | NO_ANSWER
                else:
                    answer = next(new_answers)
                answers.append(answer)
            if is_explained:
                for answer in answers:
                    answer['explanation'] = self.explain_text(answer['text'])
            self.send_json(200, answers)

    def answer_texts(self, texts):
        """The answers of the classifier. Others may have their turn in between."""
        # Texts of one length share a turn, because shorter ones are padded to the longest. Without
        # this, turns of 128 texts took a third more time than all at once.
        order = sorted(range(len(texts)), key=lambda i: len(''.join(texts[i])))
        answers = [None] * len(texts)
        for begin in range(0, len(order), TEXTS_PER_TURN):
            group = order[begin : begin + TEXTS_PER_TURN]
            texts_of_group = [texts[i] for i in group]
            new_answers = self.server.compute(self.classify_group, texts_of_group)
            for i, answer in zip(group, new_answers):
                answers[i] = answer
        return answers

    def classify_group(self, texts):
        """The answers to the texts of one turn, computed in the model's thread."""
        self.stop_if_client_has_gone()
        return self.server.classifier.classify(texts, self.server.threshold, self.server.batch_size)

    def explain_text(self, text):
        """The explanation of a text; None if the text is blank."""
        if is_blank(text):
            return None
        [explanation] = self.server.compute(self.explain_group, [text])
        return explanation

    def explain_group(self, texts):
        """The explanations of the texts of one turn, computed in the model's thread."""
        self.stop_if_client_has_gone()
        return explain(self.server.classifier, texts, self.server.batch_size)

    def stop_if_client_has_gone(self):
        """ConnectionAbortedError if the client has closed the connection: nobody waits then."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            is_readable = len(selector.select(timeout=0)) > 0
        if is_readable and self.connection.recv(1, socket.MSG_PEEK) == b'':
            raise ConnectionAbortedError

    # tables

    def label_table(self, query):
        """The bytes of a table -> the same table with answers."""
        name = safe_name(query.get('name', ''))
        with tempfile.TemporaryDirectory(dir=self.server.folder) as folder:
            path = os.path.join(folder, name)
            # safe_name gives no name that begins with a dot
            answers_path = os.path.join(folder, '.answers')
            with open(path, 'wb') as file:
                for part in self.read_body():
                    file.write(part)
            with self.server.place_in_queue():
                try:
                    file_format, summary = self.write_answers(path, answers_path, query)
                except ValueError as error:
                    raise RequestError(400, for_page(error, folder)) from None
                self.send_table(answers_path, name, file_format, summary)

    def write_answers(self, path, answers_path, query):
        """
        Labels a table -> the format of what is written, and what the page shows of it.

        ValueError for a table that cannot be used.
        """
        classifier = self.server.classifier
        table = Table(path)
        columns = all_columns_of(table)
        try:
            text_columns, pair_columns = find_text_columns(
                table,
                columns,
                classifier,
                query.get('text_column', ''),
                query.get('text_pair_column', ''),
            )
        except ValueError as error:
            message = for_page(error, os.path.dirname(path))
            raise RequestError(400, message, columns=columns[:MAX_SUMMARY_COLUMNS]) from None

        # what is JSON stays JSON: as columns its keys might be too many
        file_format = 'json' if table.is_json else format_of(path)
        counts = AnswerCounts()
        n_rows_of_label = Counter()
        with open(answers_path, 'w', newline='', encoding='utf-8') as file:
            contents = ['label', 'probability', 'runner_up', 'reason']
            writer = AnswerWriter(file, columns, contents, file_format)
            for row in answer_rows(table, text_columns, pair_columns, self.answer_texts):
                writer.write(row)
                counts.add(row)
                if row.answer is not None:
                    n_rows_of_label[row.answer['label']] += 1

        name = os.path.basename(path)
        missing = counts.describe_missing(name, writer.names['reason'])
        summary = {
            'counts': counts.describe(),
            'labels': n_rows_of_label.most_common(MAX_SUMMARY_LABELS),
            'notes': [*table.notes, missing] if missing else table.notes,
        }
        return file_format, summary

    def send_table(self, path, name, file_format, summary):
        """Sends a table with answers. The summary is JSON in the header X-Summary, %-encoded."""
        extension, content_type = TABLE_TYPES[file_format]
        new_name = answers_name(name, extension)
        summary = {'name': new_name} | summary
        headers = {
            'Content-Disposition': f"attachment; filename*=UTF-8''{quote(new_name)}",
            'X-Summary': quote(to_json(summary, ensure_ascii=False)),
        }
        with open(path, 'rb') as file:
            self.send_head(200, content_type, os.path.getsize(path), headers)
            while part := file.read(PART_BYTES):
                self.wfile.write(part)

    # reading and sending

    def read_body(self):
        """Yields the body of the request in parts."""
        while self.n_unread > 0:
            part = self.rfile.read1(min(PART_BYTES, self.n_unread))
            if not part:
                raise ConnectionResetError
            self.n_unread -= len(part)
            yield part

    def drop_body(self):
        """
        Reads what a refused client still sends, and closes the connection. Closed at once, the
        client's system would throw away our answer.
        """
        self.close_connection = True
        self.connection.settimeout(DROP_S)
        end = time.monotonic() + DROP_S
        for _ in self.read_body():
            if time.monotonic() > end:
                return

    def send_page_file(self, path):
        name, content_type = PAGE_FILES[path]
        with open(os.path.join(WEB_FOLDER, name), 'rb') as file:
            content = file.read()
        self.send_head(200, content_type, len(content))
        self.wfile.write(content)

    def send_json(self, status, content):
        """Sends a JSON value, whole."""
        data = to_json(content, ensure_ascii=False).encode()
        headers = {}
        if status == 503:
            headers['Retry-After'] = '1'
        if status == 405:
            headers['Allow'] = METHODS[split_url(self.path)[0]]
        self.send_head(status, 'application/json', len(data), headers)
        if self.command != 'HEAD':
            self.wfile.write(data)

    def send_head(self, status, content_type, size, headers=None):
        """Sends status and headers of an answer."""
        self.send_response(status)
        self.send_header('Content-Type', content_type)
        self.send_header('Content-Length', str(size))
        if self.close_connection or self.n_unread > 0:
            self.send_header('Connection', 'close')
        for name, value in (HEADERS | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code, message=None, explain=None):
        """Called by http.server for a request that is none."""
        self.n_unread = 0
        self.close_connection = True
        what = message or 'this is no request of HTTP'
        self.send_json(int(code), {'error': f'{what}; open {self.server.address}'})

    def log_message(self, format, *args):
        """Nothing is logged: the texts are nobody's business."""


# -----------------------------------------------------------------------------
# what is sent


def split_url(url):
    """'/classify?explain=1' -> '/classify', {'explain': '1'}"""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise RequestError(400, 'the address cannot be read; correct it') from None
    return parts.path, query


def parse_texts(body, has_pairs):
    """JSON -> a list of texts, and of pairs as tuples. RequestError if it is anything else."""
    try:
        items = from_json(body.decode('utf-8'))
    except ValueError as error:
        raise RequestError(400, f'the body is no JSON ({error}); send a list of texts') from None
    if not isinstance(items, list):
        raise RequestError(400, f'the body is no list but {kind_of(items)}; send a list of texts')
    texts = []
    for i, item in enumerate(items):
        if isinstance(item, str):
            texts.append(without_surrogates(item))
            continue
        if not isinstance(item, list):
            raise RequestError(400, f'item {i} is {kind_of(item)}; send texts')
        if not has_pairs:
            remedy = 'send texts, as the run was trained with single ones'
            raise RequestError(400, f'item {i} is a list; {remedy}')
        if len(item) != 2 or not all(isinstance(text, str) for text in item):
            raise RequestError(400, f'item {i} is no pair of texts; send [first, second]')
        first, second = item
        texts.append((without_surrogates(first), without_surrogates(second)))
    return texts


def kind_of(value):
    """A JSON value that is not what was needed -> what it is, for an error."""
    if value is None:
        return 'null'
    names = {bool: 'true or false', int: 'a number', float: 'a number', str: 'a text'}
    return names.get(type(value), 'an object')


def without_surrogates(text):
    """Half of a character, which JSON can hold, becomes a mark of its own, as in tables."""
    return SURROGATE.sub('\ufffd', text)


def is_blank(text):
    """Has a text nothing to classify? Of a pair both texts are needed, as in tables."""
    if isinstance(text, tuple):
        first, second = text
        return not first.strip() or not second.strip()
    return not text.strip()


def check_number_of_texts(texts, is_explained):
    """RequestError 413 for more than a request may have."""
    limit = MAX_EXPLAINED_TEXTS if is_explained else MAX_TEXTS
    if len(texts) > limit:
        what = f'a request takes {limit:,} texts at most, not {len(texts):,}'
        raise RequestError(413, f'{what}; send several requests')
    if not is_explained:
        return
    for i, text in enumerate(texts):
        content = ''.join(text)  # of both texts of a pair
        if len(content) > MAX_EXPLAINED_CHARACTERS:
            what = f'item {i}, of {len(content):,} characters, is too long to be explained'
            raise RequestError(413, f'{what}; send it without explain=1')


def safe_name(name):
    r"""
    The name of a file that is sent -> a name for a file of our own.

    Examples: '../My rows.CSV' -> 'My_rows.CSV', 'C:\\x\\отзывы.csv.gz' -> 'отзывы.csv.gz',
    '.lock' -> 'lock', '' -> 'table.csv'
    """
    name = re.split(r'[\\/]', name)[-1]
    name = re.sub(r'[^\w.-]', '_', name).lstrip('.')
    # the end is kept, which tells what the file is; a name may have 255 bytes
    return name[-60:].lstrip('.') or 'table.csv'


def answers_name(name, extension):
    """'rows.csv.gz', '.csv' -> 'rows.answers.csv'"""
    stem = re.sub(r'\.gz$', '', name, flags=re.IGNORECASE)
    old_extension = find_extension(stem)
    if old_extension:
        stem = stem[: -len(old_extension)]
    return f'{stem}.answers{extension}'


def for_page(error, folder):
    """The message of an error, without our temporary folder and with settings as they are here."""
    return str(error).replace(folder + os.sep, '').replace('--text_', 'text_')
