"""
Cleans a raw text the same way for training and for prediction.

Each step is a function `step(text, value)` -> text, where value is the setting of the same name in
prepare.py. To add a step, write its function, give it a line in STEPS, and declare its setting.
"""

import html
import re

TAG = re.compile(r'<[a-zA-Z/!][^<>]*>')
BRACKET = re.compile(r'[()\[\]{}]')
SPEAKER = re.compile(
    r"""
    ^[^\S\n]*                    # at the start of a line, perhaps after blanks:
    ([^\W\d_][\w&'./ -]{0,39})   # a name, which begins with a letter,
    (?:\([^()\n]{1,40}\))?       # perhaps a remark, as in "Supervisor (Ann):",
    [^\S\n]*:                    # and a colon,
    (?!//|(?<=\d:)\d)            # but not the colon of http:// nor of "at 10:30"
    """,
    re.MULTILINE | re.VERBOSE,
)

# -----------------------------------------------------------------------------
# the steps


def strip_html(text, value):
    """
    Replaces entities by what they stand for, and tags by blanks.

    <br> and </p> become blanks too and not line ends, so that keep_speakers does not find a name
    that only such a tag puts on a line of its own.
    Example: ('a &amp; <b>b</b>', True) -> 'a &  b '
    """
    if not value:
        return text

    # first the entities, because scraped text often holds escaped tags: &lt;b&gt;
    text = html.unescape(text)
    return TAG.sub(' ', text)


def keep_speakers(text, value):
    """
    Keeps the turns of the named speakers of a dialogue, without their names.

    value: names separated by commas, or 'all' to keep every turn with its name. A turn begins with
    "Name:" at the start of a line and ends before anybody's next "Name:". A text in which no name
    is found is no dialogue, and all of it is kept.
    Example: ('Agent: Hello.\\nCustomer: It broke.\\nTwice.', 'customer') -> ' It broke.\\nTwice.'
    """
    if value == 'all':
        return text

    wanted_names = {name.strip().lower() for name in value.split(',')}

    # SPEAKER finds names after '\n' only, and texts come with line ends of any kind
    text = '\n'.join(text.splitlines())
    pieces = SPEAKER.split(text)  # what stands before the first name, name, turn, name, turn, ...
    names = pieces[1::2]
    turns = pieces[2::2]
    if not names:
        return text

    wanted_turns = []
    for name, turn in zip(names, turns):
        if name.strip().lower() in wanted_names:
            wanted_turns.append(turn)
    return ''.join(wanted_turns)


def strip_brackets(text, value):
    """('fine (I guess)', True) -> 'fine I guess'"""
    if not value:
        return text
    return BRACKET.sub('', text)


def lowercase(text, value):
    """('Fine', True) -> 'fine'"""
    if not value:
        return text
    return text.lower()


# setting: function, in the order in which they are applied
STEPS = {
    'strip_html': strip_html,
    'speakers': keep_speakers,
    'strip_brackets': strip_brackets,
    'lowercase': lowercase,
}

# -----------------------------------------------------------------------------
# all of them


def tidy_whitespace(text):
    """White space of any kind becomes one blank, or one '\\n' where it holds a line end."""
    lines = [' '.join(line.split()) for line in text.splitlines()]
    return '\n'.join(filter(None, lines))


def apply_steps(text, settings):
    """All steps, each with its setting, then tidy white space; '' if nothing is left."""
    for name, step in STEPS.items():
        text = step(text, settings[name])
    return tidy_whitespace(text)


def clean_or_keep(text, settings):
    """
    A raw text -> the text as the model sees it, and whether cleaning would have emptied it.

    What cleaning would empty is kept as it was: an empty text tells the model nothing, and leaving
    out the row would hide that the settings do not suit the data.
    """
    cleaned = apply_steps(text, settings)
    is_emptied = not cleaned
    if is_emptied:
        cleaned = text.strip()
    return cleaned, is_emptied


def clean(text, settings):
    """A raw text -> the text as the model sees it."""
    cleaned, _ = clean_or_keep(text, settings)
    return cleaned
