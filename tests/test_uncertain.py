# python -m pytest tests/test_uncertain.py
# uncertain.py: what to label next

import pytest

from nanosentiment import uncertain
from nanosentiment.answers import AnsweredRow
from nanosentiment.uncertain import DuplicateFinder, least_sure_first, word_pairs


def row(line_number, text, probability):
    """A row as answers.answer_rows gives it, with two labels."""
    both = {'bad': 1 - probability, 'good': probability}
    return AnsweredRow(line_number, {'text': text}, text, {'probabilities': both}, '')


def test_the_least_sure_comes_first():
    rows = [row(2, 'good film', 0.9), row(3, 'so so', 0.55), row(4, 'a bad one', 0.2)]
    assert [line for line, *_ in least_sure_first(rows)] == [3, 4, 2]


def test_near_duplicates_come_last_and_say_what_they_repeat():
    """Who labels the least sure texts would else read the same letter many times."""
    letter = 'my order number {} has not come and nobody answers my calls, please help'
    rows = [
        row(2, 'something else entirely, I am happy', 0.9),
        row(3, letter.format(17), 0.6),
        row(4, letter.format(4), 0.51),
        row(5, letter.format(2025), 0.7),
    ]
    ordered = least_sure_first(rows)
    assert [line for line, *_ in ordered] == [4, 2, 3, 5]
    assert [row.answer['similar_to_line'] for row in ordered] == [None, None, 4, 4]


def test_rows_without_an_answer_come_at_the_end():
    rows = [AnsweredRow(2, {}, '', None, 'no text'), row(3, 'good', 0.9)]
    assert [line for line, *_ in least_sure_first(rows)] == [3, 2]


def test_no_row_is_lost():
    rows = [row(i, f'text number {i % 7} of a kind', 0.5 + i / 1000) for i in range(100)]
    assert sorted(line for line, *_ in least_sure_first(rows)) == list(range(100))


@pytest.mark.parametrize(
    'text, other_text, is_alike',
    [
        ('late', 'late', True),
        ('late', 'awful', False),
        ('!!!', '!!!', True),
        ('!!!', '???', False),
        ('', '', True),
        ('it came late on the first day of may', 'It came LATE on the first day of May!', True),
        ('it came late on the first day of may', 'it came late on the second day of june', False),
        ('很好', '很差', False),
    ],
)
def test_texts_are_near_duplicates_if_they_share_most_word_pairs(text, other_text, is_alike):
    finder = DuplicateFinder()
    assert finder.find_or_add(text, 1) is None
    assert (finder.find_or_add(other_text, 2) == 1) == is_alike


def test_numbers_count_as_equal():
    assert word_pairs('order 17 of 2025') == word_pairs('order 4 of 1999')


def test_the_comparisons_do_not_grow_with_the_square_of_the_texts(monkeypatch):
    """Letters of one form share bands without being alike; 100,000 of them would take hours."""
    n_comparisons = 0

    class CountingSet(set):
        def __and__(self, other):
            nonlocal n_comparisons
            n_comparisons += 1
            return set.__and__(self, other)

    monkeypatch.setattr(uncertain, 'word_pairs', lambda text: CountingSet({1, 2, 3}))
    monkeypatch.setattr(uncertain, 'ALIKE', 2)  # no two texts are
    finder = DuplicateFinder()
    for i in range(500):
        assert finder.find_or_add('', i) is None
    assert n_comparisons <= 500 * uncertain.N_BANDS * uncertain.MAX_CANDIDATES
