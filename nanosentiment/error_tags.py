"""
Tags for the error analysis: which texts hold a negation, a contrast, an unknown word, and so on.

They are transparent rules over short lists of English words, not a lexicon of sentiment. The lists
hold the words that make a difference most often, so that a table of errors by tag shows what a
model finds hard. In other languages only the tags long and rare say something.
"""

import re

TAGS = ('negation', 'contrast', 'mixed', 'long', 'rare', 'no_cue')

NEGATION = """
no not never none nothing nobody nowhere neither nor without hardly barely scarcely
cannot lacks
"""
CONTRAST = """
but however although though yet despite while instead except nevertheless still
"""
POSITIVE = """
good great best better love loved excellent wonderful perfect happy fun funny enjoy
enjoyable thank thanks kind beautiful helpful smart moving charming fresh powerful
appreciate glad pleased amazing resolved
"""
NEGATIVE = """
bad worst worse hate hated awful terrible poor boring dull stupid slow late broken rude
angry waste silly lame mess weak disappointing disappointed frustrated frustrating
annoying unacceptable fails failed problem
"""

CUES = {
    'negation': set(NEGATION.split()),
    'contrast': set(CONTRAST.split()),
    'positive': set(POSITIVE.split()),
    'negative': set(NEGATIVE.split()),
}


def find_words(text):
    """'Not so good, I say' -> ['not', 'so', 'good', 'say']; a word has two letters or more."""
    return re.findall(r'\b\w\w+\b', text.lower())


def has_cue(words, kind):
    """Is one of the CUES of this kind in a set of words?"""
    return not words.isdisjoint(CUES[kind])


def tag_text(text, is_truncated=False, known_words=None):
    """
    A text -> the list of those TAGS that hold for it.

    negation, contrast: it has such a word. mixed: it has a positive and a negative cue; no_cue:
    it has neither. long: the model saw only a part of it. rare: it has a word that is not among
    known_words, the set of words of the training texts (None: they are not known).
    Example: 'not bad , but slow' -> ['negation', 'contrast']
    """
    # "don't" counts as "do not"; texts hold both kinds of apostrophe
    spelled_out = re.sub("n['’]t\\b", ' not ', text.lower())
    words = set(re.findall(r'\w+', spelled_out))
    is_positive = has_cue(words, 'positive')
    is_negative = has_cue(words, 'negative')
    # the bag of words splits "don't" otherwise, and its words are what is known
    is_rare = known_words is not None and not known_words.issuperset(find_words(text))
    holds = {
        'negation': has_cue(words, 'negation'),
        'contrast': has_cue(words, 'contrast'),
        'mixed': is_positive and is_negative,
        'long': is_truncated,
        'rare': is_rare,
        'no_cue': not is_positive and not is_negative,
    }
    return [tag for tag in TAGS if holds[tag]]
