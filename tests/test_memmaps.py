# python -m pytest tests/test_memmaps.py
"""The prepared files: what is written is read, and batches hold every text once."""

import json
import math
import os

import numpy as np
import pytest

from nanosentiment.memmaps import (
    Blocks,
    Split,
    epoch_batches,
    pad_rows,
    token_dtype,
    truncate,
    windows,
    write_meta,
    write_split,
)

# -----------------------------------------------------------------------------
# files


def empty_meta(n_vocab, n_special=0):
    """What meta.json holds, for splits that are still to be written."""
    tokenizer = {'name': 'x', 'sha256': '', 'n_vocab': n_vocab}
    tokenizer |= {'n_prefix': n_special, 'n_suffix': n_special}
    about = {'dataset': 'x', 'labels': [], 'unknown_labels': [], 'recipe': {}}
    return about | {'tokenizer': tokenizer, 'rows': {}, 'tokens': {}}


def write_folder(folder, n_texts=5000, n_vocab=65536):
    """A prepared folder with every third text in 'val' and the rest in 'train' -> the texts."""
    rng = np.random.default_rng(0)
    dtype = token_dtype(n_vocab)
    texts = [rng.integers(0, n_vocab, n).astype(dtype) for n in rng.integers(1, 9, n_texts)]
    ids = np.concatenate(texts)
    lengths = np.array([len(text) for text in texts])
    rows = np.arange(n_texts)
    labels = (rows % 7).astype(np.uint16)
    is_val = rows % 3 == 0

    meta = empty_meta(n_vocab, n_special=1)
    for name, chosen in (('train', ~is_val), ('val', is_val)):
        write_split(folder, name, chosen, ids, lengths, labels, rows)
        meta['rows'][name] = int(chosen.sum())
        meta['tokens'][name] = int(lengths[chosen].sum())
    write_meta(folder, meta)
    return texts


@pytest.mark.parametrize('n_vocab, dtype', [(65536, np.uint16), (65537, np.uint32)])
def test_a_split_reads_what_was_written(tmp_path, n_vocab, dtype):
    """More texts than are written at a time: offsets, order and types all count."""
    texts = write_folder(tmp_path, n_vocab=n_vocab)
    rows_read = []
    for name in ('train', 'val'):
        split = Split(tmp_path, name)
        assert split.labels.tolist() == [row % 7 for row in split.rows]
        assert split.lengths.tolist() == [len(texts[row]) for row in split.rows]
        for i, row in enumerate(split.rows):
            assert split[i].dtype == dtype
            assert np.array_equal(split[i], texts[row])
        rows_read += split.rows.tolist()
    assert sorted(rows_read) == list(range(5000))


def test_a_split_cuts_its_texts(tmp_path):
    write_folder(tmp_path, 50)
    whole = Split(tmp_path, 'train')
    split = Split(tmp_path, 'train', block_size=4, keep='both')
    assert split.lengths.max() == 4
    for i in range(len(split)):
        assert len(split[i]) == split.lengths[i]
        assert split[i].tolist() == truncate(whole[i], 4, 'both', 1, 1).tolist()


def test_the_largest_id_is_kept(tmp_path):
    """65,536 tokens have ids up to 65,535, which 16 bits hold, and one token more does not fit."""
    for n_vocab, size in ((65536, 2), (65537, 4), (250_002, 4)):
        ids = np.array([n_vocab - 1, 0, n_vocab - 2], dtype=token_dtype(n_vocab))
        arrays = [np.array([True]), ids, np.array([3]), np.array([0]), np.array([7])]
        write_split(tmp_path, 'train', *arrays)
        sizes = {'rows': {'train': 1}, 'tokens': {'train': 3}}
        write_meta(tmp_path, empty_meta(n_vocab) | sizes)
        assert Split(tmp_path, 'train')[0].tolist() == [n_vocab - 1, 0, n_vocab - 2]
        assert os.path.getsize(tmp_path / 'train.tok') == 3 * size


def test_nothing_is_pickled(tmp_path):
    """A data folder from a stranger must not run code, so the numbers are flat."""
    write_folder(tmp_path, 50)
    meta = json.loads((tmp_path / 'meta.json').read_text())
    for name, n_rows in meta['rows'].items():
        sizes = {}
        for kind in ('tok', 'off', 'lab', 'row'):
            sizes[kind] = os.path.getsize(tmp_path / f'{name}.{kind}')
        assert sizes['tok'] == 2 * meta['tokens'][name]
        assert sizes['off'] == 8 * (n_rows + 1)
        assert sizes['lab'] == 2 * n_rows
        assert sizes['row'] == 8 * n_rows


@pytest.mark.parametrize('name', ['train.tok', 'train.off', 'val.lab', 'val.row', 'meta.json'])
@pytest.mark.parametrize('damage', ['truncated', 'missing'])
def test_damaged_files_are_named(tmp_path, name, damage):
    """Training must not read a half-copied folder, and the error must say what to do."""
    write_folder(tmp_path, 50)
    path = tmp_path / name
    if damage == 'truncated':
        path.write_bytes(path.read_bytes()[:-2])
    else:
        path.unlink()
    split = 'val' if name.startswith('val') else 'train'
    with pytest.raises(ValueError) as error:
        Split(tmp_path, split)
    assert name in str(error.value)
    assert f'delete {tmp_path} and prepare again' in str(error.value)


def test_a_split_without_rows_is_an_error_with_a_remedy(tmp_path):
    """Nothing is damaged then, so to prepare again would not help."""
    write_folder(tmp_path, 50)
    with pytest.raises(ValueError, match='the test split of .* has no rows; raise --test_fraction'):
        Split(tmp_path, 'test')


def test_who_cuts_a_split_must_say_what_stays(tmp_path):
    write_folder(tmp_path, 50)
    with pytest.raises(AssertionError, match='say what stays'):
        Split(tmp_path, 'train', block_size=4)


# -----------------------------------------------------------------------------
# blocks


def open_blocks(folder, n_tokens, block_size):
    """The Blocks of a split of n_tokens, whose ids are 0, 1, 2, ..., in texts of three tokens."""
    ids = np.arange(n_tokens, dtype=np.uint16)
    lengths = np.array([len(part) for part in np.array_split(ids, -(-n_tokens // 3))])
    n_texts = len(lengths)
    everything = np.ones(n_texts, dtype=bool)
    write_split(folder, 'train', everything, ids, lengths, np.zeros(n_texts), np.arange(n_texts))
    sizes = {'rows': {'train': n_texts}, 'tokens': {'train': n_tokens}}
    write_meta(folder, empty_meta(n_vocab=300) | sizes)
    return Blocks(Split(folder, 'train', block_size, 'last'))


def test_blocks_hold_every_token_once(tmp_path):
    """Texts longer than a block go on in the next one, and short ones share a block."""
    for n_tokens in range(2, 40):
        for block_size in range(2, 12):
            blocks = open_blocks(tmp_path, n_tokens, block_size)
            parts = [blocks[i].tolist() for i in range(len(blocks))]
            n_used = n_tokens
            if n_tokens % block_size == 1:
                n_used -= 1  # a block of one token predicts nothing
            assert sum(parts, []) == list(range(n_used))
            assert all(len(part) == block_size for part in parts[:-1])
            assert 2 <= len(parts[-1]) <= block_size
            assert blocks.lengths.tolist() == [len(part) for part in parts]
            assert blocks.offsets.tolist() == [0, *np.cumsum(blocks.lengths).tolist()]
            assert blocks.labels.tolist() == [0] * len(parts)


def test_blocks_are_drawn_like_texts(tmp_path):
    """train.py makes its batches of either of the two."""
    blocks = open_blocks(tmp_path, 250, 8)
    order = np.concatenate(list(epoch_batches(blocks, 4, seed=1, epoch=0)))
    assert sorted(order.tolist()) == list(range(32))
    idx, lengths = pad_rows([blocks[i] for i in order], max_length=blocks.block_size)
    assert idx.shape == (32, 8)
    assert sorted(lengths.tolist()) == [2] + [8] * 31
    assert np.sort(idx.ravel()).tolist() == [0] * 6 + list(range(250))


def test_too_little_for_a_block_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='less than two tokens .*; add texts'):
        open_blocks(tmp_path, 1, 8)
    with pytest.raises(ValueError, match='block_size 1 .*; set it above 1'):
        open_blocks(tmp_path, 9, 1)
    with pytest.raises(AssertionError):
        Blocks(Split(tmp_path, 'train'))


# -----------------------------------------------------------------------------
# truncation


def test_a_block_without_room_for_text_is_an_error(tmp_path):
    write_folder(tmp_path, 50)
    with pytest.raises(ValueError, match='block_size 2 .* 2 special tokens; set it above 2'):
        Split(tmp_path, 'train', block_size=2, keep='last')
    with pytest.raises(AssertionError):
        truncate([101, 1, 2, 102], 2, 'last', n_prefix=1, n_suffix=1)


@pytest.mark.parametrize('block_size', [3, 4, 7, 8])
def test_truncation_keeps_the_special_tokens_of_bert(block_size):
    """BERT's head reads [CLS]; without it the model would judge from a word."""
    ids = np.array([101, 1, 2, 3, 4, 5, 6, 102], dtype=np.uint16)
    n_words = block_size - 2
    words = [1, 2, 3, 4, 5, 6]
    for keep in ('first', 'last', 'both'):
        cut = truncate(ids, block_size, keep, n_prefix=1, n_suffix=1)
        assert cut.dtype == np.uint16
        assert len(cut) == block_size
        assert cut[0] == 101
        assert cut[-1] == 102
        kept_words = cut[1:-1].tolist()
        if keep == 'first':
            assert kept_words == words[:n_words]
        elif keep == 'last':
            assert kept_words == words[6 - n_words :]
        else:
            n_left = block_size // 2 - 1
            n_right = n_words - n_left
            assert kept_words == words[:n_left] + words[6 - n_right :]


@pytest.mark.parametrize(
    'keep, expected', [('first', [1, 2, 9]), ('last', [4, 5, 9]), ('both', [1, 5, 9])]
)
def test_truncation_keeps_the_last_token_of_gpt2(keep, expected):
    """A GPT's head reads the last token."""
    cut = truncate([1, 2, 3, 4, 5, 9], 3, keep, n_prefix=0, n_suffix=1)
    assert cut.tolist() == expected


# -----------------------------------------------------------------------------
# batches


class ToySplit:
    """n texts of 1 to 29 tokens; one in ten has label 1."""

    def __init__(self, n):
        rng = np.random.default_rng(0)
        self.lengths = rng.integers(1, 30, n)
        self.labels = (rng.random(n) < 0.1).astype(np.uint16)
        self.offsets = np.append(0, np.cumsum(self.lengths))

    def __len__(self):
        return len(self.labels)


@pytest.mark.parametrize('n, batch_size', [(1, 4), (37, 4), (1000, 8), (5000, 3)])
def test_an_epoch_shows_every_text_once(n, batch_size):
    """The last batch is short, and must not be dropped."""
    batches = list(epoch_batches(ToySplit(n), batch_size, seed=1, epoch=2))
    assert len(batches) == math.ceil(n / batch_size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))


def test_the_order_follows_from_seed_and_epoch():
    """Otherwise a resumed run would see other batches than an uninterrupted one."""

    def order(seed, epoch):
        return np.concatenate(list(epoch_batches(ToySplit(300), 8, seed, epoch))).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_batches_of_similar_length_need_little_padding():
    split = ToySplit(800)

    def padded_ratio(batches):
        n_cells = sum(len(rows) * split.lengths[rows].max() for rows in batches)
        return n_cells / split.lengths.sum()

    random_batches = np.array_split(np.random.default_rng(0).permutation(800), 100)
    assert padded_ratio(random_batches) > 1.5
    assert padded_ratio(list(epoch_batches(split, 8, seed=1, epoch=0))) < 1.15


def test_batches_mix_anew_in_every_epoch():
    """Sorting the whole data set by length would put the same texts together each time."""
    split = ToySplit(800)
    pairs_of_epoch = []
    for epoch in (0, 1):
        pairs = set()
        for rows in epoch_batches(split, 8, seed=1, epoch=epoch):
            for row in rows:
                pairs |= {(row, other) for other in rows if row < other}
        pairs_of_epoch.append(pairs)
    first, second = pairs_of_epoch
    assert len(first & second) < 0.2 * len(first)


def test_balanced_batches_draw_labels_equally_often():
    split = ToySplit(2000)
    rows = np.concatenate(list(epoch_batches(split, 8, seed=1, epoch=0, balanced=True)))
    assert len(rows) == 2000
    assert split.labels.mean() < 0.15
    assert 0.45 < split.labels[rows].mean() < 0.55


def test_padding_is_zeros_on_the_right():
    idx, lengths = pad_rows([np.array([5, 6, 7]), np.array([8]), [9, 9]])
    assert idx.tolist() == [[5, 6, 7], [8, 0, 0], [9, 9, 0]]
    assert lengths.tolist() == [3, 1, 2]
    assert idx.dtype == np.int64
    assert lengths.dtype == np.int64


@pytest.mark.parametrize(
    'length, T', [(1, 8), (8, 8), (9, 16), (63, 64), (65, 80), (129, 160), (300, 320), (512, 512)]
)
def test_with_max_length_batches_have_few_shapes(length, T):
    """A CUDA graph is recorded for each shape, so there must be few of them."""
    idx, lengths = pad_rows([np.ones(length, dtype=np.uint16)], max_length=512)
    assert idx.shape == (1, T)
    assert lengths.tolist() == [length]
    assert idx.sum() == length


def test_padding_never_exceeds_max_length():
    idx, _ = pad_rows([np.ones(50, dtype=np.uint16)], max_length=51)
    assert idx.shape == (1, 51)


def test_a_text_longer_than_max_length_is_an_error():
    with pytest.raises(AssertionError):
        pad_rows([np.ones(52, dtype=np.uint16)], max_length=51)


# -----------------------------------------------------------------------------
# windows


def test_the_windows_of_a_text_worked_by_hand():
    """Five tokens in windows of two: one token is read twice, so that all windows are full."""
    assert [part.tolist() for part in windows([1, 2, 3, 4, 5], 2, 0, 0)] == [[1, 2], [2, 3], [4, 5]]


@pytest.mark.parametrize('n_prefix, n_suffix', [(0, 0), (0, 1), (1, 1), (2, 3)])
def test_windows_cover_the_text_and_are_complete(n_prefix, n_suffix):
    """Each looks like a text of its own: full, in order, with all special tokens."""
    prefix = [1001, 1002][:n_prefix]
    suffix = [2001, 2002, 2003][:n_suffix]
    for n_words in range(1, 40):
        words = list(range(n_words))
        ids = np.array(prefix + words + suffix, dtype=np.uint16)
        for block_size in range(n_prefix + n_suffix + 1, 12):
            parts = windows(ids, block_size, n_prefix, n_suffix)
            words_read = []
            for part in parts:
                assert part.dtype == np.uint16
                assert len(part) == min(block_size, len(ids))
                part = part.tolist()
                assert part[:n_prefix] == prefix
                assert part[len(part) - n_suffix :] == suffix
                words_of_part = part[n_prefix : len(part) - n_suffix]
                first = words_of_part[0]
                assert words_of_part == list(range(first, first + len(words_of_part)))
                words_read += words_of_part
            assert sorted(set(words_read)) == words
            # no window more than is needed
            assert len(parts) == max(1, math.ceil(n_words / (block_size - n_prefix - n_suffix)))


def test_windows_without_room_for_text_are_an_error():
    with pytest.raises(AssertionError):
        windows([101, 1, 2, 102], 2, n_prefix=1, n_suffix=1)
