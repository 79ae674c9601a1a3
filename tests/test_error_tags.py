"""The rules of the error analysis. python -m pytest tests/test_error_tags.py"""

import pytest

from nanosentiment.error_tags import tag_text

TRAINING_TEXT = 'it is not bad but slow don care ca lose good actors awful story lovely'
KNOWN_WORDS = set(TRAINING_TEXT.split())


@pytest.mark.parametrize(
    'text, expected',
    [
        ('it is not bad , but slow', ['negation', 'contrast']),
        ("I don't care", ['negation', 'no_cue']),
        ('ca n’t lose', ['negation', 'no_cue']),
        ('good actors , awful story', ['mixed']),
        ('good zyzzyva', ['rare']),
        ('nothingness', ['rare', 'no_cue']),
        ('', ['no_cue']),
    ],
)
def test_tags_follow_their_rules(text, expected):
    assert tag_text(text, known_words=KNOWN_WORDS) == expected


def test_a_truncated_text_is_long():
    assert tag_text('good', is_truncated=True) == ['long']


def test_no_word_is_rare_if_the_training_words_are_not_known():
    assert tag_text('good zyzzyva') == []
