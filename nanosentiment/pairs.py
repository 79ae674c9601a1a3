"""
Pairs of texts, such as question and answer, for encoders that were trained with pairs.

A pair travels from the table to the tokenizer as one string, the two texts with PAIR_MARK between
them, so that whatever handles texts handles pairs, too. Only the tokenizer and the cleaning look
inside.
"""

# Unicode reserves this character for use within a program, so no text of a user needs it. It is
# neither white space nor a line end nor a letter.
PAIR_MARK = '\ufdd0'


def join_pair(first, second):
    """Two texts -> one string that split_pair takes apart again."""
    return first.replace(PAIR_MARK, ' ') + PAIR_MARK + second.replace(PAIR_MARK, ' ')


def split_pair(text):
    """What join_pair made -> the two texts. A single text: itself and None."""
    first, mark, second = text.partition(PAIR_MARK)
    if not mark:
        return text, None
    return first, second


def show_pair(text):
    """For people: a pair as 'first | second', while a single text stays as it is."""
    return text.replace(PAIR_MARK, ' | ')
