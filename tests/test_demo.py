# python -m pytest tests/test_demo.py
# the bundled demo data: remade byte for byte, well formed, and its hand-written test stays out of the generator's reach
import csv
import importlib.util
import os
import re
from collections import Counter

here = os.path.dirname(os.path.abspath(__file__))
folder = os.path.join(here, '..', 'data', 'demo')
spec = importlib.util.spec_from_file_location('make_demo', os.path.join(folder, 'make_demo.py'))
make_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_demo)


def read(name):
    with open(os.path.join(folder, name), encoding='utf-8', newline='') as f:
        return list(csv.reader(f))


def sentences(conversation):
    # customer turns only, cut into sentences, without case and punctuation
    turns = [t.split(':', 1)[1] for t in conversation.split('\n\n') if t.startswith('Customer:')]
    cut = (re.sub(r'[^a-z0-9 ]', '', s.lower()).split() for t in turns for s in re.split(r'[.?!]', t))
    return {' '.join(words) for words in cut if words}


def test_train_csv_is_what_the_generator_writes(tmp_path):
    """who doubts the data can remake it: same seed, same bytes, on any machine"""
    path = tmp_path / 'train.csv'
    with open(path, 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows([make_demo.COLUMNS, *make_demo.make()])
    with open(os.path.join(folder, 'train.csv'), 'rb') as f:
        assert path.read_bytes() == f.read()


def test_both_files_have_the_eleven_columns():
    """prepare.py reads demo and customer_service alike, so their form must be the same"""
    want = 'issue_area issue_category issue_sub_category issue_category_sub_category customer_sentiment '
    want += 'product_category product_sub_category issue_complexity agent_experience_level '
    want += 'agent_experience_level_desc conversation'
    for name in ('train.csv', 'test.csv'):
        rows = read(name)
        assert rows[0] == want.split()
        assert {len(r) for r in rows} == {11}
        assert all(cell.strip() for r in rows for cell in r)


def test_records_end_crlf_and_turns_part_by_two_lf():
    """the line ends that made others lose every customer turn"""
    for name in ('train.csv', 'test.csv'):
        with open(os.path.join(folder, name), 'rb') as f:
            raw = f.read()
        assert raw.count(b'\r\n') == len(read(name))
        for row in read(name)[1:]:
            assert '\r' not in row[10]
            turns = row[10].split('\n\n')
            assert all(re.match(r'(Agent|Customer|Supervisor): \S', t) and '\n' not in t for t in turns)
            assert any(t.startswith('Customer: ') for t in turns)


def test_test_labels_are_balanced_and_train_labels_are_not():
    """a rare positive is the point of train; a balanced test shows whether it was learned"""
    test = Counter(r[4] for r in read('test.csv')[1:])
    assert set(test) == {'negative', 'neutral', 'positive'}
    assert len(set(test.values())) == 1 and min(test.values()) >= 20
    train = Counter(r[4] for r in read('train.csv')[1:])
    n = sum(train.values())
    assert set(train) == set(test)
    assert train['positive'] / n < 0.12 < 0.3 < train['negative'] / n < train['neutral'] / n


def test_no_test_sentence_can_be_learned_by_heart():
    """a score on sentences seen in training would say nothing; other seeds stand for all the generator can say"""
    held = set().union(*(sentences(r[10]) for r in read('test.csv')[1:]))
    seen = set().union(*(sentences(r[10]) for r in read('train.csv')[1:]))
    assert len(held) > 90 and len(seen) > 1000
    assert not held & seen
    for seed in range(5):
        assert not held & set().union(*(sentences(r[10]) for r in make_demo.make(seed)))


def test_demo_stays_small():
    """it is cloned by everybody, so it stays under a megabyte"""
    names = ('make_demo.py', 'train.csv', 'test.csv', 'README.md')
    assert sum(os.path.getsize(os.path.join(folder, name)) for name in names) < 1_000_000
