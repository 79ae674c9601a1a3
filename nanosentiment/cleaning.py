"""
Cleans a raw text the same way for training and for prediction.

Each step is a function `step(text, value)` -> text, where value is the setting of the same name in
prepare.py. To add a step, write its function, give it a line in STEPS, and declare its setting.
"""

import html
import re
from html.entities import html5 as NAMED_ENTITIES

from nanosentiment.pairs import PAIR_MARK, join_pair, split_pair

# the elements of the HTML standard, https://html.spec.whatwg.org/#elements-3, and some older ones
ELEMENT_NAMES = """
a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption cite
code col colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption
figure footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img input ins kbd label
legend li link main map mark math menu meta meter nav noscript object ol optgroup option output p
picture pre progress q rp rt ruby s samp script search section select slot small source span strong
style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track u ul
var video wbr
acronym applet basefont big blink center dir font frame frameset marquee nobr noframes param strike
tt
"""
HTML_ELEMENTS = frozenset(ELEMENT_NAMES.split())
# HTML lets one write these without a closing tag. Others of that kind are not here, because their
# names are words of code and placeholders, too: <input>, <link>, <option>, <source>.
NEEDS_NO_CLOSING_TAG = frozenset(
    ['br', 'hr', 'img', 'wbr', 'p', 'li', 'dt', 'dd', 'tr', 'th', 'td']
)

# Whatever has the shape of markup; is_markup() says whether it is HTML.
TAG = re.compile(
    r"""
    <!-- (?: [^<] | <(?!!--) )*? -->   # a comment, which holds no other "<!--"
    | <! (?i:doctype) \b [^<>]* >
    | < (?P<slash>/?)
        (?P<name>[a-zA-Z][a-zA-Z0-9]*)
        (?P<rest>\s[^<>]*|/?) >        # attributes, or the slash of <br/>
    """,
    re.VERBOSE,
)
CLOSING_TAG = re.compile(r'</([a-zA-Z][a-zA-Z0-9]*)\s*>')
# What follows the name in a tag: perhaps words that need no value, and then name=value or the end.
ATTRIBUTES = re.compile(
    r"""
    (?: (?: checked | controls | disabled | hidden | nowrap | required | selected ) (?:\s+|\Z) )*
    (?: [\w:@.-]+ \s* = (?!=)     # but not the comparison of a<b c==d>
        | /? \Z
    )
    """,
    re.VERBOSE,
)
# At most 8 digits, because Python refuses to read a number of more than 4,300.
ENTITY = re.compile(r'&(?:\#[0-9]{1,8}|\#[xX][0-9a-fA-F]{1,8}|[a-zA-Z][a-zA-Z0-9]{1,31});')

BRACKET = re.compile(r'[()\[\]{}]')
# What stays of a match is in its groups: an emoticon, or what a pair of brackets encloses.
EMOTICON_OR_BRACKET = re.compile(
    r"""
    # 1. An emoticon stays. It has eyes, but not those of "(at 10:)" or "(n=)",
    (
        (?: (?<!\d): | ; | (?<!\w)= )
        [',’]? [-o^]?                # perhaps a tear and a nose,
        (?:
            \)+ | \]+                # and a mouth, which may be wide,
            | (?: \(+ | \[+ ) (?! [\w"'(){}\[\]] )   # but is not that of "Note:(x)" or "=[]".
        )
        # These must stand alone, unlike the end of "Supervisor (Ann):".
        | (?<!\S) [()] -? [:;] (?!\S)    # (:
        | (?<!\S) 8 -? \) (?!\S)         # 8)
    )

    # 2. A pair of brackets goes, though the second one looks like a mouth:
    | \(
    (
        [^(){}\[\]]*
        (?:
            [:;=] [',’]? [-o^]? [()]     # (really :))
            | \b 8                       # (see section 8)
        )
    )
    \)

    # 3. Any other bracket goes.
    | [(){}\[\]]
    """,
    re.VERBOSE,
)

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
    Replaces HTML entities by what they stand for, and HTML tags by blanks.

    Only what is_markup() takes for HTML goes, and only entities that end with a semicolon:
    vector<int>, <3, <user> and ?a=1&copy=2 stay. <br> and </p> become blanks too and not line ends,
    so that keep_speakers does not find a name that only such a tag puts on a line of its own.
    Example: ('a &amp; <b>b</b>', True) -> 'a &  b '
    """
    if not value:
        return text

    # first the entities, because scraped text often holds escaped tags: &lt;b&gt;
    if '&' in text:
        text = ENTITY.sub(replace_entity, text)
    if '<' in text:
        text = remove_tags(text)
    return text


def replace_entity(match):
    """&eacute; -> é and &#33; -> !, while what is no entity of HTML stays: &x; -> &x;"""
    entity = match[0]
    is_number = entity.startswith('&#')
    # html.unescape alone would make ©right; of &copyright;
    if is_number or entity[1:] in NAMED_ENTITIES:
        return html.unescape(entity)
    return entity


def remove_tags(text):
    """Replaces what is_markup() takes for HTML by blanks."""
    closed_names = {name.lower() for name in CLOSING_TAG.findall(text)}

    def replace_tag(match):
        if is_markup(match, closed_names):
            return ' '
        return match[0]

    return TAG.sub(replace_tag, text)


def is_markup(match, closed_names):
    """
    Whether a match of TAG is HTML, rather than code, a placeholder or a comparison.

    A comment and a doctype are. A tag is, if it has the name of an HTML element and is one of
        </b>  <br/>       a closing or closed tag,
        <a href="x">      with attributes as in HTML,
        <p>  <br>         bare, and in NEEDS_NO_CLOSING_TAG,
        <b>               bare, and the text has a </b>, too.
    So vector<int>, vector<b>, "Dear <title>", a<b and c>d, <3 and <me@x.org> are not.
    closed_names: the names of the closing tags in the text, in lower case.
    """
    if match['name'] is None:
        return True  # a comment or doctype

    name = match['name'].lower()
    rest = match['rest'].strip()
    if name not in HTML_ELEMENTS:
        return False
    if match['slash']:
        return not rest
    if rest:
        return ATTRIBUTES.match(rest) is not None
    return name in NEEDS_NO_CLOSING_TAG or name in closed_names


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
    """
    Removes ( ) [ ] { } but neither what they enclose nor the mouths of emoticons.

    Examples: 'fine (I guess)' -> 'fine I guess', 'great (really :))' -> 'great really :)'
    """
    # most texts have no bracket, and the search is much faster than the substitution
    if not value or BRACKET.search(text) is None:
        return text
    return EMOTICON_OR_BRACKET.sub(r'\1\2', text)


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

# the types of their values, for files that hold them
STEP_TYPES = {name: bool for name in STEPS} | {'speakers': str}

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
    A raw text or pair -> what the model sees of it, and whether cleaning would have emptied it.

    The two texts of a pair are cleaned each by itself, if the settings have a text_pair_column.
    """
    if settings.get('uncleaned'):
        return text, False  # for a checkpoint that was not trained here
    if 'text_pair_column' not in settings:
        text = text.replace(PAIR_MARK, ' ')  # else it would pass for a pair
    first, second = split_pair(text)
    first, is_emptied = clean_or_keep_one(first, settings)
    if second is None:
        return first, is_emptied
    second, is_second_emptied = clean_or_keep_one(second, settings)
    return join_pair(first, second), is_emptied or is_second_emptied


def clean_or_keep_one(text, settings):
    """
    One raw text -> the text as the model sees it, and whether cleaning would have emptied it.

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
