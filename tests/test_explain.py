# python -m pytest tests/test_explain.py
# explain.py: which words or turns carried a label

import json
import time

import numpy as np
import pytest
from conftest import in_time
from hypothesis import given
from hypothesis import strategies as st

from nanosentiment import Classifier
from nanosentiment.explain import MAX_CHARACTERS, explain, leave_out, split_text, strongest
from nanosentiment.pairs import PAIR_MARK, join_pair

DIALOGUE = 'Agent: Hello, how are you?\nCustomer: It broke. Twice!\n\nAgent: I am sorry.'


class WordCounter:
    """A classifier whose log-odds are known: +2 for each 'good', -1 for each 'but'."""

    labels = ['bad', 'good']
    temperature = 2.0

    def __init__(self):
        self.n_rows = []  # of each forward pass

    def join(self, text):
        return join_pair(*text) if isinstance(text, tuple) else text

    def logits(self, texts, batch_size):
        self.n_rows.append(len(texts))
        odds = [2 * text.count('good') - text.count('but') for text in texts]
        # logits / temperature have these odds between them, whatever is added to both
        return np.array([[7, 7 + self.temperature * x] for x in odds], dtype=np.float32)


# -----------------------------------------------------------------------------
# pieces


@given(st.text())
def test_the_pieces_add_up_to_the_text(text):
    _, pieces = split_text(text)
    assert ''.join(pieces) == text


@given(st.text(), st.text())
def test_the_pieces_of_a_pair_add_up_to_it(first, second):
    pair = join_pair(first, second)
    _, pieces = split_text(pair)
    assert ''.join(pieces) == pair
    assert pieces.count(PAIR_MARK) == 1


def test_a_short_text_is_taken_apart_into_words():
    assert split_text('Not good.') == ('words', ['Not ', 'good.'])
    assert split_text('很好 ok') == ('words', ['很', '好 ', 'ok']), 'no blanks between the words'


def test_a_dialogue_is_taken_apart_into_turns():
    kind, turns = split_text(DIALOGUE)
    assert kind == 'turns'
    assert turns[1] == 'Customer: It broke. Twice!\n\n'
    assert len(turns) == 3


def test_a_long_text_is_taken_apart_into_sentences():
    """Each word of a page would take a page to be read again."""
    text = 'It is fine, Mr Bean said. ' * 100
    kind, sentences = split_text(text)
    assert kind == 'sentences'
    assert len(sentences) == 100


def test_a_very_long_text_has_few_pieces():
    """Ten thousand short lines would be ten thousand rows of a forward pass."""
    text = ''.join(f'{name}: hm.\n' for name in ('Agent', 'Customer')) * 5000
    kind, pieces = split_text(text)
    assert kind == 'turns'
    assert len(pieces) > 10
    assert len(pieces) * len(text) <= MAX_CHARACTERS
    assert ''.join(pieces) == text


def test_a_text_without_points_is_taken_apart_into_words_however_long():
    """As one sentence it would have a single weight, which says nothing."""
    assert split_text('so i called them and they said no ' * 40)[0] == 'words'
    kind, sentences = split_text('这部电影很好。演员也不错！' * 20)
    assert (kind, len(sentences)) == ('sentences', 40)


def test_a_run_of_marks_takes_time_in_proportion_to_it():
    """12,000 of them took four seconds, because each was the begin of another try."""
    text = 'w ' * 201 + '!' * 200_000 + 'x'
    begin = time.perf_counter()
    split_text(text)
    in_time(time.perf_counter() - begin, 1)


# -----------------------------------------------------------------------------
# weights


def test_a_weight_is_what_the_log_odds_lose_without_the_piece():
    [explanation] = explain(WordCounter(), ['a good film but long'])
    assert explanation['label'] == 'good'
    assert explanation['pieces'] == ['a ', 'good ', 'film ', 'but ', 'long']
    assert explanation['weights'] == pytest.approx([0, 2, 0, -1, 0])


def test_the_label_that_is_explained_is_the_most_probable_one():
    [explanation] = explain(WordCounter(), ['but'])
    assert explanation['label'] == 'bad'
    assert explanation['weights'] == pytest.approx([1])


def test_a_text_of_n_words_takes_n_and_one_rows_of_one_pass():
    classifier = WordCounter()
    explain(classifier, [' '.join(['word'] * 50)])
    assert classifier.n_rows == [51]


def test_a_pair_stays_a_pair_without_any_of_its_words():
    [explanation] = explain(WordCounter(), [('good one', 'but two')])
    pieces = explanation['pieces']
    assert pieces == ['good ', 'one', PAIR_MARK, 'but ', 'two']
    assert explanation['weights'] == pytest.approx([2, 0, 0, -1, 0])
    assert all(PAIR_MARK in leave_out(pieces, i) for i in range(len(pieces)))


def test_many_texts_keep_their_order():
    texts = ['good', 'but'] * 70
    labels = [explanation['label'] for explanation in explain(WordCounter(), texts)]
    assert labels == ['good', 'bad'] * 70


def test_the_strongest_pieces_are_shown_without_their_commas():
    explanation = {'pieces': ['a ', 'good,\n', 'film ', 'but.'], 'weights': [0.0, 2, 0.5, -1]}
    assert strongest(explanation) == [('good', 2), ('film', 0.5)]


def test_a_real_model_can_be_explained(trained):
    """Of a single word nothing is left, which the model must be able to read, too."""
    classifier = Classifier(trained.out_dir, device='cpu')
    texts = ['lovely', 'the parcel came late and it was awful']
    one_word, many_words = explain(classifier, texts)
    labels = [answer['label'] for answer in classifier(texts)]
    assert [one_word['label'], many_words['label']] == labels
    assert len(one_word['weights']) == 1
    assert max(many_words['weights']) > 0
    json.dumps(many_words, allow_nan=False)
