# python -m pytest tests/test_cleaning.py
"""The cleaning steps: each removes what it is meant to remove and nothing else."""

import time

import pytest
from conftest import in_time

from nanosentiment.cleaning import apply_steps, clean, clean_or_keep, keep_speakers

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


def test_a_text_of_which_nothing_is_left_stays_raw():
    """Otherwise the model would be trained on an empty text with a label."""
    settings = ALL | {'speakers': 'customer'}
    assert apply_steps('Agent: Bye (now).', settings) == ''
    assert clean(' Agent: Bye (now). ', settings) == 'Agent: Bye (now).'
    assert clean_or_keep(' Agent: Bye (now). ', settings) == ('Agent: Bye (now).', True)
    assert clean_or_keep('Customer: Bye (now).', settings) == ('bye now.', False)


@pytest.mark.parametrize('repeated', ['<!--', '<a ', ' ', '&lt', 'A ', '\n'])
def test_a_hostile_megabyte_is_cleaned_fast(repeated):
    """A regular expression that backtracks would stop the preparation at one row."""
    text = repeated * (1_000_000 // len(repeated))
    begin = time.perf_counter()
    clean(text, ALL | {'speakers': 'customer'})
    in_time(time.perf_counter() - begin, 5)
