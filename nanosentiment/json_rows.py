"""
The rows of a JSON file, one at a time, whether they are an array or stand one after the other.

    with open('mine.json') as f:
        array_key = find_array_key(f, 'mine.json')
    with open('mine.json') as f:
        for line_number, row, reason in read_json_rows(f, array_key):
            ...

The json module would read the whole file, and stop at the first broken row. Here a row may begin
and end on any line, only a part of the file is held, and reading goes on after a broken row.
"""

import json
import re

from nanosentiment.labels import shorten

# How a file of rows begins: with an object, or with an array of objects
JSON_BEGIN = re.compile(r'\s*(\{\s*"|\[\s*\{\s*")')


def read_json_rows(f, array_key=''):
    """
    Yields (line number, row, reason) of each value. The row is {} if the value is no object.

    array_key  of the array that holds the rows, if they are wrapped in an object
    """
    reader = JsonReader(f)
    if array_key:
        enter_array(reader, array_key)
    is_in_array = array_key != ''
    while character := reader.peek():
        if character == ']':
            if array_key:
                return
            reader.skip_character()
            is_in_array = False
            continue
        if character == '[' and not is_in_array and reader.peek_second() in ('{', '[', ']'):
            reader.skip_character()
            is_in_array = True
            continue

        line_number = reader.line_number
        try:
            row = reader.read_value()
        except json.JSONDecodeError as error:
            reader.skip_broken(error, is_in_array)
            # the json module's messages may end in 'at', for a position that is not shown here
            problem = error.msg.removesuffix(' starting at').removesuffix(' at').lower()
            yield line_number, {}, f'not a JSON object: {problem}'
            continue
        if isinstance(row, dict):
            yield line_number, row, ''
        else:
            yield line_number, {}, f'not a JSON object: {describe_value(row)}'


# -----------------------------------------------------------------------------
# rows that are wrapped in an object


def find_array_key(f, path):
    """
    The key of the rows in a file such as {"version": 1, "data": [{...}, {...}]}; '' if the rows are
    not wrapped like that.

    Raises ValueError if the file is one object, and it is not clear where its rows are.
    """
    reader = JsonReader(f)
    if reader.peek() != '{':
        return ''
    array_keys = []
    are_nested = []  # for each other value: is it a list or an object?
    try:
        for key in read_keys(reader):
            if reader.peek() == '[' and reader.peek_second() == '{':
                array_keys.append(key)
                skip_array(reader)
            else:
                are_nested.append(isinstance(reader.read_value(), (list, dict)))
    except json.JSONDecodeError:
        return ''  # the object is a row, and a broken one
    if reader.peek():
        return ''  # more objects follow, so these are the rows

    if len(array_keys) == 1:
        return array_keys[0]
    if array_keys:
        raise ValueError(
            f'{path} holds {len(array_keys)} arrays of rows: {shorten(array_keys)}; '
            'save each as a file of its own'
        )
    if are_nested and all(are_nested):
        raise ValueError(
            f'{path} is one object without an array of rows; save an object for each row, '
            "in pandas with df.to_json('rows.jsonl', orient='records', lines=True)"
        )
    return ''  # an object with texts and numbers is a file with one row


def enter_array(reader, array_key):
    """Moves to the first element of the array with this key."""
    reader.peek()
    for key in read_keys(reader):
        if reader.peek() == '[' and key == array_key:
            reader.skip_character()
            return
        reader.read_value()


def skip_array(reader):
    """Moves behind an array without holding more than one of its elements."""
    reader.skip_character()
    while reader.peek() != ']':
        reader.read_value()
    reader.skip_character()


def read_keys(reader):
    """Yields the keys of the object at the position. The caller must read each value."""
    reader.skip_character()
    while reader.peek() != '}':
        key = reader.read_value()
        if not isinstance(key, str) or reader.peek() != ':':
            raise json.JSONDecodeError('no key', reader.text, reader.position)
        reader.skip_character()
        yield key
    reader.skip_character()


# -----------------------------------------------------------------------------
# from characters to values


CHUNK = 1 << 16  # the characters that are read at a time
MAX_CHARACTERS = 1 << 24  # a longer value is taken for a broken one
# An error this close to the end of the text may only mean that a token is cut, such as
# '\ud83d\ude00', the longest.
LONGEST_TOKEN = 12
# commas are skipped like blanks, so that rows with and without them between are read alike
BLANKS = re.compile(r'[\s,]*')
# Where a value may begin after a broken one: on a line that begins with a bracket, however far it
# is indented, for else a row may be lost. Other lines may be a part of the broken value if they are
# indented, or begin with a quote or a closing brace.
NEXT_LINE = re.compile(r'\n\s*(?=[{\[\]])|\n(?=[^\s"}])')
NEXT_IN_LINE = re.compile(r'\} ?, ?(?=\{)')


class JsonReader:
    """Reads JSON values from an open file, one after the other, and holds only a part of it."""

    def __init__(self, f):
        self.f = f
        self.text = ''
        self.position = 0  # in the text
        self.line_number = 1
        self.decoder = json.JSONDecoder()

    def read_more(self):
        """Drops the text before the position and appends more; False at the end of the file."""
        rest = self.text[self.position :]
        # a long value is parsed anew each time, so twice as much of it is read each time
        more = self.f.read(max(CHUNK, len(rest)))
        self.text = rest + more
        self.position = 0
        return more != ''

    def move_to(self, position):
        self.line_number += self.text.count('\n', self.position, position)
        self.position = position

    def skip_character(self):
        self.move_to(self.position + 1)

    def peek(self):
        """Moves to the next character but blanks and commas -> that one; '' at the file's end."""
        while True:
            self.move_to(BLANKS.match(self.text, self.position).end())
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read_more():
                return ''

    def peek_second(self):
        """The next character after the one at the position, likewise, but without moving."""
        while True:
            end = BLANKS.match(self.text, self.position + 1).end()
            if end < len(self.text):
                return self.text[end]
            if not self.read_more():
                return ''

    def read_value(self):
        """The value at the position; raises json.JSONDecodeError if it is broken."""
        while True:
            problem = None
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
                may_go_on = end == len(self.text)  # 12 may be the begin of 123
            except json.JSONDecodeError as error:
                problem = error
                is_near_end = error.pos > len(self.text) - LONGEST_TOKEN
                may_go_on = is_near_end or error.msg.startswith('Unterminated string')
            except (RecursionError, ValueError):  # ValueError: a number of 5,000 digits
                problem = json.JSONDecodeError('too deep or too long', self.text, self.position)
                may_go_on = False

            is_too_long = len(self.text) - self.position > MAX_CHARACTERS
            if may_go_on and not is_too_long and self.read_more():
                continue
            if problem:
                raise problem
            self.move_to(end)
            return value

    def skip_broken(self, error, is_in_array):
        """
        Moves from a broken value to where the next one may begin.

        That is on a following line, or in an array perhaps on the same line, after '},'.
        """
        begin_same_line = error.pos
        while True:
            ends = []
            if match := NEXT_LINE.search(self.text, self.position):
                ends.append(match.end())
            if is_in_array and (match := NEXT_IN_LINE.search(self.text, begin_same_line)):
                ends.append(match.end())
            if ends:
                self.move_to(min(ends))
                return
            # what is looked for may be cut by the end of the text, but is not as long as this
            self.move_to(max(self.position, len(self.text) - CHUNK))
            begin_same_line = max(begin_same_line - self.position, 0)
            if not self.read_more():
                self.move_to(len(self.text))
                return


# -----------------------------------------------------------------------------
# values


def describe_value(value):
    """What a JSON value is, for people: {'a': 1, 'b': 2} -> 'an object with the keys a, b'"""
    if isinstance(value, dict):
        return f'an object with the keys {shorten(list(value))}'
    if isinstance(value, list):
        return 'a list'
    if isinstance(value, str):
        return 'a text'
    return json.dumps(value)


def strings_in(value):
    """Yields all keys and texts of a JSON value, however deep."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
