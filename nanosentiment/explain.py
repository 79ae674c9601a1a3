"""
Which parts of a text carry its label: each is left out in turn, and the model is asked again.

    explain(classifier, ['It broke after two days.'])
    -> [{'label': 'negative', 'kind': 'words',
         'pieces': ['It ', 'broke ', 'after ', ...], 'weights': [0.1, 2.9, 0.4, ...]}]

The parts are words; of a dialogue they are its turns, and of another long text its sentences.
This is occlusion (Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901; for words Li et al.
2016, https://arxiv.org/abs/1612.08220). docs/evaluation.md has a test of it, beside gradients.
"""

import math
import re

import numpy as np

from nanosentiment.cleaning import SPEAKER
from nanosentiment.pairs import PAIR_MARK, split_pair

MAX_WORDS = 200  # a longer text is taken apart into sentences,
FEWEST_SENTENCES = 5  # unless it has fewer of them, as transcripts do
# The characters of all variants of a text, so that a very long one is no matter of hours: it gets
# fewer and longer pieces. As many are in memory at a time, of one or several texts.
MAX_CHARACTERS = 4_000_000
MAX_PIECES = 400
# Chinese and Japanese have no blanks between words, so each character is a piece
CHARACTER = r'[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]'
WORD = re.compile(rf'\s*(?:{CHARACTER}|(?:(?!{CHARACTER})\S)+)\s*')
# the lookbehind and ++ keep a run of marks from being read again for each of them
SENTENCE = re.compile(r'.+?(?:(?<![.!?])[.!?]++["\')\]]*+(?=\s|$)|[。！？]|\n|$)\s*', re.DOTALL)

# -----------------------------------------------------------------------------
# pieces


def split_text(text):
    """
    A raw text -> what its pieces are, 'words', 'turns' or 'sentences', and the pieces.

    They add up to the text: white space belongs to the piece before it. Between the two texts of a
    pair stands PAIR_MARK, as a piece of its own.
    Example: 'Not good.' -> 'words', ['Not ', 'good.']
    """
    turns = split_turns(text)
    if len(turns) > 2:
        return 'turns', join_neighbours(turns, len(text))
    kind = 'words'
    pieces = split_pair_by(WORD, text)
    if len(pieces) > MAX_WORDS:
        sentences = split_pair_by(SENTENCE, text)
        if len(sentences) >= FEWEST_SENTENCES:
            kind = 'sentences'
            pieces = sentences
    assert ''.join(pieces) == text, (text, pieces)
    return kind, pieces


def split_turns(text):
    """A dialogue -> its turns, each with the speaker's name; another text -> [text]."""
    if PAIR_MARK in text:
        return [text]
    begins = [match.start() for match in SPEAKER.finditer(text)]
    edges = sorted({0, *begins, len(text)})
    return [text[begin:end] for begin, end in zip(edges, edges[1:])]


def split_pair_by(pattern, text):
    """A text or a pair -> the matches of a pattern, as many as it may have."""
    first, second = split_pair(text)
    pieces = join_neighbours(split_by(pattern, first), len(text))
    if second is not None:
        pieces += [PAIR_MARK, *join_neighbours(split_by(pattern, second), len(text))]
    return pieces


def split_by(pattern, text):
    """A text -> the matches of a pattern that matches all of it, unless it is blank."""
    if not text.strip():
        return [text] if text else []
    return pattern.findall(text)


def join_neighbours(pieces, n_characters):
    """
    Pieces of a text of so many characters -> as many as it may have: if there are more, several
    that follow each other are one.
    """
    limit = min(MAX_PIECES, max(MAX_CHARACTERS // max(n_characters, 1), 2))
    n_joined = math.ceil(len(pieces) / limit)
    if n_joined < 2:
        return pieces
    begins = range(0, len(pieces), n_joined)
    return [''.join(pieces[begin : begin + n_joined]) for begin in begins]


# -----------------------------------------------------------------------------
# weights


def explain(classifier, texts, batch_size=64):
    """
    Raw texts, or pairs as tuples -> a dict for each text, with

    label    the most probable one, which is explained
    kind     'words', 'turns' or 'sentences'
    pieces   of the text, which add up to it
    weights  of each piece: by how much the label's log-odds, ln(p / (1 - p)), fall without it. A
             piece with a weight above 0 speaks for the label, one below 0 against it.

    A text of n pieces takes n + 1 rows of a forward pass. The weights of words that say the same do
    not add up: without one of them the other still says it. Of a text that was cut to block_size,
    what is left out makes room for what had been cut off.
    """
    explanations = []
    splits = []  # kind and pieces of each text of a chunk
    n_characters = 0  # of its variants
    for text in texts:
        text = classifier.join(text)
        kind, pieces = split_text(text)
        n_new = (len(pieces) + 1) * len(text)
        if splits and n_characters + n_new > MAX_CHARACTERS:
            explanations += explain_chunk(classifier, splits, batch_size)
            splits = []
            n_characters = 0
        splits.append((kind, pieces))
        n_characters += n_new
    if splits:
        explanations += explain_chunk(classifier, splits, batch_size)
    return explanations


def explain_chunk(classifier, splits, batch_size):
    """
    The explanations of a few texts, of each of which splits has the kind and the pieces. All their
    variants are classified together.
    """
    variants = []
    for _, pieces in splits:
        variants.append(''.join(pieces))
        for i in range(len(pieces)):
            variants.append(leave_out(pieces, i))
    logits = classifier.logits(variants, batch_size) / classifier.temperature

    explanations = []
    begin = 0
    for kind, pieces in splits:
        logits_of_text = logits[begin : begin + len(pieces) + 1]
        begin += len(pieces) + 1
        label = int(logits_of_text[0].argmax())
        log_odds = label_log_odds(logits_of_text, label)
        weights = log_odds[0] - log_odds[1:]
        if PAIR_MARK in pieces:
            weights[pieces.index(PAIR_MARK)] = 0  # it is never left out
        explanations.append(
            {
                'label': classifier.labels[label],
                'kind': kind,
                'pieces': pieces,
                'weights': [round(float(weight), 4) for weight in weights],
            }
        )
    return explanations


def leave_out(pieces, i):
    """The text without piece i. A pair stays a pair."""
    if pieces[i] == PAIR_MARK:
        return ''.join(pieces)
    return ''.join(pieces[:i] + pieces[i + 1 :])


def label_log_odds(logits, label):
    """Logits (n, K) -> ln(p / (1 - p)) of one label's probability p, (n,) float64."""
    logits = logits.astype(np.float64)
    others = np.delete(logits, label, axis=1)  # (n, K - 1)
    largest = others.max(axis=1)
    log_sum = largest + np.log(np.exp(others - largest[:, None]).sum(axis=1))
    return logits[:, label] - log_sum


def strongest(explanation, n=3):
    """
    The n pieces that speak most for the label: [(piece, weight), ...], for people: on one line,
    and without the comma or point at its end.
    """
    order = sorted(range(len(explanation['pieces'])), key=lambda i: -explanation['weights'][i])
    pairs = []
    for i in order[:n]:
        if explanation['weights'][i] > 0:
            piece = ' '.join(explanation['pieces'][i].split())
            word = piece.rstrip('.,;:') or piece
            pairs.append((word, explanation['weights'][i]))
    return pairs
