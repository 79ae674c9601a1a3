"""
Makes train.csv and test.csv from the texts of the VADER study, see README.md.
$ python data/demo/make_demo.py FOLDER    # the folder of the two original files

The same bytes come out every time, on any machine.
"""

import argparse
import csv
import html
import os
import random
from collections import Counter

TWEETS = 'tweets_GroundTruth.txt'
REVIEWS = 'amazonReviewSnippets_GroundTruth.txt'
PLACEHOLDERS = ['@anonymous', 'http://url_removed']  # what the study put for names and addresses
COLUMNS = ['text', 'sentiment', 'source', 'rating']
TEST_FRACTION = 0.1
SEED = 1

# -----------------------------------------------------------------------------
# one text


def clean(text):
    """'at &amp;#38; t  is  great' -> 'at & t is great'"""
    # a few entities are escaped twice: &amp;#38; is &#38;, which is &
    text = html.unescape(html.unescape(text))
    return ' '.join(text.split())


def words_of(text):
    """'@anonymous Wow!!! I LOVE  it :)' -> 'wow i love it'"""
    text = text.lower()
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, ' ')
    kept = [char for char in text if char.isalnum() or char.isspace()]
    return ' '.join(''.join(kept).split())


def label_of(rating):
    """A mean rating from -4 to 4 -> its sentiment"""
    if float(rating) <= -0.5:
        return 'negative'
    if float(rating) >= 0.5:
        return 'positive'
    return 'neutral'


def overlap(words, other_words):
    """The share of the different words that both texts have: 'very good', 'good' -> 0.5"""
    words = set(words.split())
    other_words = set(other_words.split())
    return len(words & other_words) / len(words | other_words)


# -----------------------------------------------------------------------------
# the original files


def read_rows(path, source):
    """A file of lines with id, mean rating and text -> list of dicts, in its order"""
    rows = []
    with open(path, encoding='utf-8') as f:
        for line in f:
            number, rating, text = line.rstrip('\n').split('\t')
            text = clean(text)
            row = {'text': text, 'sentiment': label_of(rating), 'source': source, 'rating': rating}
            row['id'] = number
            row['words'] = words_of(text)
            rows.append(row)
    return rows


def group_tweets(rows):
    """
    Gives versions of one tweet the same group.

    The study rewrote 34 tweets with other capitals and exclamation marks, which leaves the words as
    they are, and with a word like 'very' more or less. Versions follow each other in the file.
    """
    group_of_words = {'': 'tweets without words'}
    previous_words = ''
    for row in rows:
        words = row['words']
        if words not in group_of_words:
            if overlap(words, previous_words) >= 0.5:
                group_of_words[words] = group_of_words[previous_words]
            else:
                group_of_words[words] = f'tweet {row["id"]}'
        row['group'] = group_of_words[words]
        previous_words = words


def group_reviews(rows):
    """The sentences of one review have ids such as 12_1 and 12_2, and are one group."""
    for row in rows:
        row['group'] = 'review ' + row['id'].split('_')[0]


def drop_repeats(tweets, reviews):
    """
    All tweets, and the review sentences that have words, and not those of an earlier text.

    The first of equal sentences stays, with its rating. Versions of a tweet are no repeats: people
    rated them differently.
    """
    rows = list(tweets)
    known_words = {row['words'] for row in tweets}
    known_words.add('')
    for row in reviews:
        if row['words'] not in known_words:
            known_words.add(row['words'])
            rows.append(row)
    return rows


# -----------------------------------------------------------------------------
# the split


def choose_test_groups(rows):
    """
    Groups that together have a tenth of each label of each source -> set of groups

    They are taken in random order; one that would bring too many texts of some label is left out.
    """
    rows_of_group = {}
    for row in rows:
        rows_of_group.setdefault(row['group'], []).append(row)

    room = Counter((row['source'], row['sentiment']) for row in rows)
    for kind, n in room.items():
        room[kind] = round(n * TEST_FRACTION)

    # random() gives the same numbers in every version of Python; shuffle() need not
    rng = random.Random(SEED)
    chosen = set()
    for group in sorted(rows_of_group, key=lambda group: rng.random()):
        needed = Counter((row['source'], row['sentiment']) for row in rows_of_group[group])
        if all(n <= room[kind] for kind, n in needed.items()):
            room.subtract(needed)
            chosen.add(group)
    return chosen


def make_rows(folder):
    """The folder of the original files -> rows of train.csv, rows of test.csv"""
    tweets = read_rows(os.path.join(folder, TWEETS), 'tweet')
    reviews = read_rows(os.path.join(folder, REVIEWS), 'review')
    group_tweets(tweets)
    group_reviews(reviews)
    rows = drop_repeats(tweets, reviews)
    test_groups = choose_test_groups(rows)
    train = [row for row in rows if row['group'] not in test_groups]
    test = [row for row in rows if row['group'] in test_groups]
    return train, test


def write_rows(path, rows):
    with open(path, 'w', encoding='utf-8', newline='') as f:
        writer = csv.DictWriter(f, COLUMNS, extrasaction='ignore', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description='Makes train.csv and test.csv of the demo data.')
    parser.add_argument('folder', help=f'holds {TWEETS} and {REVIEWS}')
    folder = parser.parse_args().folder
    for name in (TWEETS, REVIEWS):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            parser.error(f'no file {path}; README.md says where to get it')

    train, test = make_rows(folder)
    here = os.path.dirname(os.path.abspath(__file__))
    for name, rows in [('train.csv', train), ('test.csv', test)]:
        write_rows(os.path.join(here, name), rows)
        counts = Counter((row['source'], row['sentiment']) for row in rows)
        for (source, label), n in sorted(counts.items()):
            print(f'{name:9}  {source:6}  {label:8}  {n:5,}')


if __name__ == '__main__':
    main()
