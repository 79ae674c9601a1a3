# python -m pytest tests/test_cleaning.py
"""The cleaning steps: each removes what it is meant to remove and nothing else."""

import time

import pytest
from conftest import in_time
from hypothesis import example, given
from hypothesis import strategies as st

from nanosentiment.cleaning import (
    apply_steps,
    clean,
    clean_or_keep,
    keep_speakers,
    strip_brackets,
    strip_html,
)

ALL = {'strip_html': True, 'speakers': 'all', 'strip_brackets': True, 'lowercase': True}
NONE = {'strip_html': False, 'speakers': 'all', 'strip_brackets': False, 'lowercase': False}


@pytest.mark.parametrize(
    'raw, expected',
    [
        ('Fine (I guess) [laughs] {x}', 'fine i guess laughs x'),
        (
            'a &amp; <b>b</b> &lt;i&gt;c&lt;/i&gt; <!-- no --> &#39;d&#39;',
            "a & b c 'd'",
        ),
        ('2 < 3 and 5 > 4, I <3 it', '2 < 3 and 5 > 4, i <3 it'),
        (
            'one\r\n\r\ntwo\rthree \t four\n \n five\u00a0six',
            'one\ntwo\nthree four\nfive six',
        ),
        ('  \n', ''),
    ],
)
def test_markup_and_extra_white_space_are_removed_and_nothing_else(raw, expected):
    """Without the "<" of "I <3 it" a sentiment is lost; a tag that stays becomes a word."""
    assert apply_steps(raw, ALL) == expected


def test_each_step_can_be_switched_on_alone():
    raw = 'A (b) <i>c</i>'
    assert clean(raw, NONE) == raw
    assert clean(raw, NONE | {'lowercase': True}) == 'a (b) <i>c</i>'
    assert clean(raw, NONE | {'strip_brackets': True}) == 'A b <i>c</i>'
    assert clean(raw, NONE | {'strip_html': True}) == 'A (b) c'


# -----------------------------------------------------------------------------
# HTML


@pytest.mark.parametrize(
    'text',
    [
        'why does vector<int> fail',
        'why does vector<string> fail',
        'a map<a>, a vector<b>, a list<object>, an Option<u> and a List<T>',
        'a<b and c>d',
        'a<b c==d>e </b or c>',
        'true if x < y, or i<p.length, and j>0',
        'I <3 it, not </3 it <- here <!-- and open',
        'Dear <title> <name>, enter <code> and <select required fields>, <ORG>',
        '<http://x.y> <me@x.org> <user> </s3>',
    ],
)
def test_what_is_not_html_stays(text):
    """Without <int> and <string>, two labels of questions about code have the same texts."""
    assert strip_html(text, True) == text


@pytest.mark.parametrize(
    'markup',
    [
        '<br>',
        '<BR/>',
        '<br />',
        '<p>',
        '</p>',
        '</DIV >',
        '<a href="http://x.y/?a=1">',
        "<Font\ncolor='red' size=2>",
        '<td nowrap>',
        '<input disabled value=x />',
        '<!-- a > b, <b> -->',
        '<!DOCTYPE html>',
    ],
)
def test_html_becomes_a_blank(markup):
    """Also where it is glued to words: they would become one word without the blank."""
    assert strip_html(f'one{markup}two', True) == 'one two'


def test_a_bare_tag_counts_only_with_its_closing_tag():
    """<b> is bold type in a text that ends it, and an argument or a placeholder elsewhere."""
    assert clean('very<b>good</B>, <i>', NONE | {'strip_html': True}) == 'very good , <i>'


def test_escaped_markup_is_treated_like_markup():
    """Scraped text often holds tags that were escaped, and code has to be escaped."""
    escaped = '&lt;em&gt;why&lt;/em&gt; does vector&lt;int&gt; fail'
    assert strip_html(escaped, True) == ' why  does vector<int> fail'


@pytest.mark.parametrize(
    'entity, expected',
    [
        ('&eacute;', 'é'),
        ('&#33;', '!'),
        ('&#x1F600;', '😀'),
        ('AT&T; R&D', 'AT&T; R&D'),
        ('/?a=1&copy=2', '/?a=1&copy=2'),
        ('&copyright;', '&copyright;'),
    ],
)
def test_entities_end_with_a_semicolon(entity, expected):
    """html.unescape alone makes ©=2 of a link's &copy=2."""
    assert strip_html(entity, True) == expected


def test_an_endless_number_is_no_entity():
    """Python refuses to read it, and that must not stop the preparation at one row."""
    text = '&#' + '1' * 5000 + ';'
    assert strip_html(text, True) == text


# -----------------------------------------------------------------------------
# brackets

HAPPY = [':)', ':-)', ';)', ';-)', '=)', ':]', ':o)', '(:', '(-:', '8)', '8-)', ':))']
SAD = [':(', ':-(', '=(', ":'(", ':’(', ':[', '):', '=(((']


@pytest.mark.parametrize('emoticon', HAPPY + SAD)
def test_emoticons_keep_their_brackets(emoticon):
    """Without them :) and :( are the same, and they are often all that tells two labels apart."""
    for text in [emoticon, f'the bus, well {emoticon}', f'{emoticon} so\nit {emoticon} goes']:
        assert strip_brackets(text, True) == text


def test_emoticons_may_touch_words_and_points():
    """In tweets they often do."""
    for text in ['at home:(', 'thanks;)', '>:[', 'righteous.;-).', 'yes :( #late', ':)thanks']:
        assert strip_brackets(text, True) == text


@pytest.mark.parametrize(
    'text, expected',
    [
        ('fine (I guess)', 'fine I guess'),
        ('great (really :))', 'great really :)'),
        ('great (really :)', 'great really :)'),
        ('(sad :( but fine)', 'sad :( but fine'),
        ('(see section 8)', 'see section 8'),
        ('Note:(x), Options:[a], (1:)', 'Note:x, Options:a, 1:'),
        ('Supervisor (Ann): hello', 'Supervisor Ann: hello'),
        ('f(n=) x=(1) y=[]', 'fn= x=1 y='),
        ('{a:[1, (2)]}', 'a:1, 2'),
    ],
)
def test_other_brackets_go_and_what_they_enclose_stays(text, expected):
    """A colon or an 8 next to a bracket is not always a pair of eyes."""
    assert strip_brackets(text, True) == expected


def test_cleaning_removes_no_signal_by_default():
    """prepare.py's defaults: HTML goes; brackets, emoticons, capitals and code stay."""
    defaults = NONE | {'strip_html': True}
    text = 'The NEW one (v2) broke std::map<int, string> :('
    assert clean(text, defaults) == text


@given(st.text() | st.text(alphabet="()[]:;=8-' \nao"))
def test_only_brackets_are_removed(text):
    """Whatever the pattern takes for an emoticon or a pair, all else must come out as it was."""
    brackets = str.maketrans('', '', '()[]{}')
    stripped = strip_brackets(text, True)
    assert stripped.translate(brackets) == text.translate(brackets)


# -----------------------------------------------------------------------------
# dialogues


@pytest.mark.parametrize('line_end', ['\n', '\n\n', '\r\n', '\r\n\r\n', '\r'])
def test_only_the_turns_of_the_named_speakers_are_kept(line_end):
    """A turn ends where anybody else speaks, not only the agent, and at any kind of line end."""
    turns = [
        'Agent: Hello.',
        'Customer: It broke.',
        'Twice, at 10:30, see http://x.y.',
        'Senior Agent: Sorry.',
        'CUSTOMER : ok',
        'Supervisor: I am the boss.',
        'Returns team: Us too.',
        'Supervisor (Ann): And I.',
        'Customer (Jo): Bye',
    ]
    dialogue = line_end.join(turns)

    of_customer = clean(dialogue, ALL | {'speakers': 'customer'})
    assert of_customer == 'it broke.\ntwice, at 10:30, see http://x.y.\nok\nbye'

    of_both = clean(dialogue, ALL | {'speakers': 'Customer, supervisor'})
    assert 'i am the boss' in of_both
    assert 'sorry' not in of_both

    assert 'supervisor: i am the boss' in clean(dialogue, ALL)


def test_tags_do_not_end_lines():
    """<br> becomes a blank, so a name after it begins no turn. Other bytes need another format."""
    assert clean('Agent: Hello.<br>Customer: Hi.', ALL) == 'agent: hello. customer: hi.'


def test_a_text_without_speakers_is_kept_whole():
    """A review has no customer's turns; it must not be emptied because of that."""
    review = 'it is 10:30 and\nhttp://example.com is down'
    assert keep_speakers(review, 'customer') == review
    assert clean(review, ALL | {'speakers': 'customer'}) == review


# -----------------------------------------------------------------------------
# all steps together


def test_a_text_of_which_nothing_is_left_stays_raw():
    """Otherwise the model would be trained on an empty text with a label."""
    settings = ALL | {'speakers': 'customer'}
    assert apply_steps('Agent: Bye (now).', settings) == ''
    assert clean(' Agent: Bye (now). ', settings) == 'Agent: Bye (now).'
    assert clean_or_keep(' Agent: Bye (now). ', settings) == ('Agent: Bye (now).', True)
    assert clean_or_keep('Customer: Bye (now).', settings) == ('bye now.', False)


MARKUP = st.lists(st.sampled_from(['<', '</', '<!--', '-->', '>', 'b', 'br', ' ', '=', '&#', ';']))


@given(st.text() | MARKUP.map(''.join))
@example('&#xD800; &#0; &#99999999; &#xFFFFFFFF;')
def test_any_text_can_be_cleaned(text):
    """One odd row must not stop the preparation, and only blank texts may come out empty."""
    for settings in (ALL, ALL | {'speakers': 'customer'}, NONE | {'strip_html': True}):
        cleaned = clean(text, settings)
        assert bool(cleaned) == bool(text.strip())


HOSTILE_HTML = ['<!--', '<!-', '<a ', '<a x=', '<b>', '</b>', '<b ', '</b ', '&lt', '&#']
HOSTILE_BRACKETS = ['(', '[', ':', ':(', '(8', '8 ', '(:', '((a']
HOSTILE_DIALOGUES = [' ', 'A ', '\n']


@pytest.mark.parametrize('repeated', HOSTILE_HTML + HOSTILE_BRACKETS + HOSTILE_DIALOGUES)
def test_a_hostile_megabyte_is_cleaned_fast(repeated):
    """A regular expression that backtracks would stop the preparation at one row."""
    text = repeated * (1_000_000 // len(repeated))
    begin = time.perf_counter()
    clean(text, ALL | {'speakers': 'customer'})
    in_time(time.perf_counter() - begin, 5)
