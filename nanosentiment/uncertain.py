"""
What to label next: the texts of which a model is least sure, and of near duplicates only one.

The order is that of margin sampling: the smaller the margin between the two most probable labels,
the earlier (Settles 2009, section 3.1, https://burrsettles.com/pub/settles.activelearning.pdf).
Near duplicates are found by MinHash (Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900).
"""

import re
import zlib
from collections import defaultdict

import numpy as np

ALIKE = 0.7  # of two texts, the share of all their word pairs that they have in common
# With 8 bands of 4 hashes, two texts with that share become candidates with probability 0.89, and
# two with a share of 0.3 with 0.06.
N_BANDS = 8
HASHES_PER_BAND = 4
MAX_CANDIDATES = 20  # of a band that are compared, so that the time does not grow with the square
PRIME = (1 << 31) - 1


def margin(answer):
    """By how much the first label of an answer of Classifier.classify exceeds the second."""
    best, second = sorted(answer['probabilities'].values(), reverse=True)[:2]
    return best - second


def least_sure_first(rows):
    """
    The AnsweredRows of answers.answer_rows, all in memory, as a list: the least sure first, then
    the near duplicates of these, then the rows without an answer.

    Each answer gets the key 'similar_to_line': for a near duplicate the line number of the row that
    it repeats, else None.
    """
    answered = []
    without = []
    for row in rows:
        if row.answer is None:
            without.append(row)
        else:
            answered.append(row)
    answered.sort(key=lambda row: margin(row.answer))

    finder = DuplicateFinder()
    firsts = []
    repeats = []
    for row in answered:
        earlier = finder.find_or_add(row.text, row.line_number)
        row.answer['similar_to_line'] = earlier
        if earlier is None:
            firsts.append(row)
        else:
            repeats.append(row)
    return firsts + repeats + without


# -----------------------------------------------------------------------------
# near duplicates


def word_pairs(text):
    """
    A text -> the set of the hashes of its pairs of neighbouring words, of a single word its own.

    Numbers count as equal: letters that differ only in their date or order number are one kind.
    """
    words = re.findall(r'\w+', re.sub(r'\d+', '0', text.lower()))
    if len(words) < 2:
        pairs = words or [text.strip()]
    else:
        pairs = [f'{first} {second}' for first, second in zip(words, words[1:])]
    return {zlib.crc32(pair.encode()) % PRIME for pair in pairs}


class DuplicateFinder:
    """Remembers texts, and tells of a new one whether it nearly repeats one of them."""

    def __init__(self):
        # n hash functions x -> (a x + b) mod PRIME; the least value of each over a set of word
        # pairs is equal for two sets with the probability of their share in common
        rng = np.random.default_rng(0)
        n = N_BANDS * HASHES_PER_BAND
        self.a = rng.integers(1, PRIME, n)[:, None]  # (n, 1)
        self.b = rng.integers(0, PRIME, n)[:, None]
        self.texts_of_band = defaultdict(list)  # (band, its hashes) -> [(name, word pairs), ...]

    def find_or_add(self, text, name):
        """The name of an earlier text that this one nearly repeats, or None, and it is added."""
        pairs = word_pairs(text)
        hashes = (self.a * np.array(list(pairs)) + self.b) % PRIME  # (n, number of pairs)
        least = hashes.min(axis=1).reshape(N_BANDS, HASHES_PER_BAND)
        bands = [(i, *least[i].tolist()) for i in range(N_BANDS)]
        for band in bands:
            for earlier, earlier_pairs in self.texts_of_band[band][:MAX_CANDIDATES]:
                n_common = len(pairs & earlier_pairs)
                if n_common >= ALIKE * len(pairs | earlier_pairs):
                    return earlier
        for band in bands:
            self.texts_of_band[band].append((name, pairs))
        return None
