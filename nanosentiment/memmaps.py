"""
The prepared files: four of each split, as they are written, read, and drawn from in batches.

    <split>.tok   uint16          the token ids of all texts, end to end and uncut; uint32 where the
                                  vocabulary has more than 65,536 tokens
    <split>.off   int64 (n + 1,)  where each text begins in .tok, and where the last one ends
    <split>.lab   uint16 (n,)     the label, an index of the list in meta.json
    <split>.row   int64 (n,)      the row of the raw file, from 0

meta.json holds the sizes, the labels, the tokenizer and the recipe. Nothing is pickled. Texts
without labels have 0 in .lab, and meta.json lists no labels.
"""

import os

import numpy as np

from nanosentiment.files import (
    check_fields,
    check_texts,
    checksum,
    read_sealed_json,
    write_sealed_json,
)

DTYPES = {'off': np.int64, 'lab': np.uint16, 'row': np.int64}  # token_dtype has that of .tok
MAX_LABELS = np.iinfo(DTYPES['lab']).max + 1
# when texts are encoded and written, because the ids of all of them may not fit into memory
TEXTS_AT_A_TIME = 2048


def token_dtype(n_vocab):
    """The type of the ids of a vocabulary of so many tokens: uint16 if they fit, or else uint32."""
    if n_vocab <= 2**16:
        return np.uint16
    return np.uint32


# -----------------------------------------------------------------------------
# writing


def write_split(folder, name, is_in_split, ids, lengths, labels, rows):
    """
    Writes the four files of a split, with the texts that is_in_split (n,) bool marks.

    ids holds the token ids of all n texts end to end, in the type of token_dtype; lengths, labels
    and rows are (n,).
    """
    arrays = {
        'off': np.append(0, lengths[is_in_split].cumsum()),
        'lab': labels[is_in_split],
        'row': rows[is_in_split],
    }
    for kind, array in arrays.items():
        array.astype(DTYPES[kind]).tofile(f'{folder}/{name}.{kind}')

    ends = lengths.cumsum()
    with open(f'{folder}/{name}.tok', 'wb') as f:
        for start in range(0, len(lengths), TEXTS_AT_A_TIME):
            batch = slice(start, start + TEXTS_AT_A_TIME)
            first_id = ends[start] - lengths[start]
            batch_ids = ids[first_id : ends[batch][-1]]
            is_id_in_split = np.repeat(is_in_split[batch], lengths[batch])
            batch_ids[is_id_in_split].tofile(f)


def write_meta(folder, meta):
    """Writes meta.json, with the checksums of all other files that are in the folder by now."""
    names = sorted(os.listdir(folder))
    # rejected.csv is for people, and no program reads it
    checksums = {name: checksum(f'{folder}/{name}') for name in names if name != 'rejected.csv'}
    write_sealed_json(f'{folder}/meta.json', meta | {'checksums': checksums})


# -----------------------------------------------------------------------------
# reading

META = {
    'dataset': str,
    'labels': list,
    'unknown_labels': list,
    'tokenizer': dict,
    'recipe': dict,
    'rows': dict,
    'tokens': dict,
}
TOKENIZER = {'name': str, 'n_vocab': int, 'sha256': str, 'n_prefix': int, 'n_suffix': int}


def read_meta(folder, name='meta.json'):
    """A JSON file of a prepared folder -> dict. ValueError if it is missing, broken or changed."""
    remedy = f'delete {folder} and prepare again'
    path = f'{folder}/{name}'
    content = read_sealed_json(path, remedy)
    if name == 'meta.json':
        try:
            check_fields(content, META, {'checksums': dict}, 'it')
            check_fields(content['tokenizer'], TOKENIZER, {}, 'its tokenizer')
            check_texts(content['labels'] + content['unknown_labels'], 'its labels')
            sizes = [*content['rows'].values(), *content['tokens'].values()]
            if not all(type(size) is int and size > 0 for size in sizes):
                raise ValueError('its sizes are no numbers')
        except ValueError as error:
            raise ValueError(f'{path} cannot be used: {error}; {remedy}') from None
    return content


def check_folder(folder):
    """
    ValueError if a file of a prepared folder is not what was written, as its checksum tells.

    A flipped bit in it would train on other texts or labels without a word. This reads about 1 GB a
    second, and holds a few kB. Folders of older versions have no checksums.
    """
    for name, digest in read_meta(folder).get('checksums', {}).items():
        path = f'{folder}/{os.path.basename(name)}'
        if not os.path.exists(path) or checksum(path) != digest:
            what = f'{path} is missing or was damaged since it was prepared'
            raise ValueError(f'{what}; delete {folder} and prepare again')


def read_array(folder, name, kind, size, dtype):
    """One file of a split -> array on the disk, which is read where it is looked at."""
    path = f'{folder}/{name}.{kind}'
    dtype = np.dtype(dtype)
    expected = size * dtype.itemsize
    n_bytes = 0
    if os.path.exists(path):
        n_bytes = os.path.getsize(path)
    if n_bytes != expected:
        raise ValueError(
            f'{path} has {n_bytes} bytes, meta.json says {expected}; '
            f'delete {folder} and prepare again'
        )
    # as a plain ndarray, because slicing the memmap class is slow
    return np.asarray(np.memmap(path, dtype=dtype, mode='r'))


class Split:
    """
    A split of a prepared folder: split[i] is the ids (T,) of text i.

    With block_size, texts are cut to so many tokens, and keep says what stays of a longer one, see
    truncate. lengths (of the cut texts), labels and raw rows are arrays (n,). Raises ValueError for
    a split without rows, for a block_size that holds no more than the special tokens, and for files
    that are missing or of another size than meta.json says.
    """

    def __init__(self, folder, name, block_size=None, keep=None):
        assert block_size is None or keep is not None, 'say what stays of a text that is cut'
        self.meta = read_meta(folder)
        self.pair_ids = self.meta['tokenizer'].get('pair_ids', [])  # [] if the texts are no pairs
        self.block_size = block_size
        self.keep = keep
        n_rows = self.meta['rows'].get(name, 0)
        if n_rows == 0:
            remedy = 'add rows to the data'
            if name in ('val', 'test'):
                remedy = f'raise --{name}_fraction, or add rows to the data'
            raise ValueError(f'the {name} split of {folder} has no rows; {remedy}')
        if block_size is not None:
            tokenizer = self.meta['tokenizer']
            n_special = tokenizer['n_prefix'] + tokenizer['n_suffix']
            smallest = n_special + 1
            if self.pair_ids:
                n_special += len(self.pair_ids)
                smallest = n_special + 2  # a token of each text
            if block_size < smallest:
                raise ValueError(
                    f'block_size {block_size} leaves no room for text beside {n_special} special '
                    f'tokens; set it above {smallest - 1}'
                )
        n_tokens = self.meta['tokens'][name]
        dtype = token_dtype(self.meta['tokenizer']['n_vocab'])
        self.tokens = read_array(folder, name, 'tok', n_tokens, dtype)
        self.offsets = read_array(folder, name, 'off', n_rows + 1, DTYPES['off'])
        self.labels = read_array(folder, name, 'lab', n_rows, DTYPES['lab'])
        self.rows = read_array(folder, name, 'row', n_rows, DTYPES['row'])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        ids = self.tokens[self.offsets[i] : self.offsets[i + 1]]
        if self.block_size is None:
            return ids
        tokenizer = self.meta['tokenizer']
        n_prefix, n_suffix = tokenizer['n_prefix'], tokenizer['n_suffix']
        return truncate(ids, self.block_size, self.keep, n_prefix, n_suffix, self.pair_ids)

    @property
    def lengths(self):
        lengths = np.diff(self.offsets)
        if self.block_size is None:
            return lengths
        return np.minimum(lengths, self.block_size)


class Blocks:
    """
    All tokens of a split, end to end, in blocks of its block_size: blocks[i] is ids (block_size,).

    This is how nanoGPT reads texts to learn language from. Each token of a block but the last
    predicts the next one, so a batch needs no padding, and nothing of a text that is longer than a
    block is lost. A block may begin within a text and reach into the next one; between two texts
    stand the tokens that end the one and begin the other, for GPT-2 <|endoftext|>.

    The last block may be shorter. If it would have one token, which predicts nothing, it is left
    out. lengths, labels (all 0) and offsets are as in Split, so that batches are made alike.
    ValueError for a split, or a block_size, of less than two tokens.
    """

    def __init__(self, split):
        assert split.block_size is not None, 'open the split with a block_size'
        if split.block_size < 2:
            raise ValueError(f'block_size {split.block_size} leaves no next token; set it above 1')
        self.meta = split.meta
        self.block_size = split.block_size
        self.tokens = split.tokens
        n_tokens = len(self.tokens)
        if n_tokens % self.block_size == 1:
            n_tokens -= 1
        if n_tokens == 0:
            raise ValueError('a split has less than two tokens to learn from; add texts')
        self.offsets = np.append(np.arange(0, n_tokens, self.block_size), n_tokens)
        self.lengths = np.diff(self.offsets)
        self.labels = np.zeros(len(self.lengths), dtype=DTYPES['lab'])

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]


def truncate(ids, block_size, keep, n_prefix, n_suffix, pair_ids=()):
    """
    At most block_size of a text's ids: all special tokens, and of the text what keep says.

    keep: 'first' or 'last' keeps that end, 'both' half of each. n_prefix and n_suffix are how many
    special tokens stand before and after the text. pair_ids are those between the texts of a pair,
    see truncate_pair; without them the ids are those of a single text.
    """
    assert block_size > n_prefix + n_suffix, (block_size, n_prefix, n_suffix)
    if len(ids) <= block_size:
        return ids
    if len(pair_ids) > 0 and pair_ids[0] in ids[n_prefix : len(ids) - n_suffix]:
        return truncate_pair(ids, block_size, keep, n_prefix, n_suffix, pair_ids)
    if keep == 'first':
        n_left = block_size - n_suffix
    elif keep == 'last':
        n_left = n_prefix
    else:
        assert keep == 'both', keep
        n_left = block_size // 2
    n_right = block_size - n_left
    # not ids[-n_right:], which is all of them if n_right is 0
    return np.concatenate([ids[:n_left], ids[len(ids) - n_right :]])


def truncate_pair(ids, block_size, keep, n_prefix, n_suffix, pair_ids):
    """
    block_size of a longer pair's ids: all special tokens, and as much of the texts as fits. The
    longer text is cut first, until both are equally long; with keep='first' this is what
    truncation='longest_first' does in transformers. keep says what stays of each text.

    Example: 7 of [101, 1, 2, 3, 4, 102, 5, 6, 102], 'first' -> [101, 1, 2, 102, 5, 6, 102]
    """
    ids = np.asarray(ids)
    end = len(ids) - n_suffix
    # a separator that a user types is plain text to the tokenizer, so this is the real one
    middle = n_prefix + int(np.argmax(ids[n_prefix:end] == pair_ids[0]))
    first = ids[n_prefix:middle]
    second = ids[middle + len(pair_ids) : end]

    n_left = block_size - n_prefix - len(pair_ids) - n_suffix
    assert n_left >= 2, (block_size, n_prefix, n_suffix, pair_ids)
    n_of_shorter = min(len(first), len(second), n_left // 2)
    n_of_longer = n_left - n_of_shorter
    if len(first) <= len(second):
        n_first, n_second = n_of_shorter, n_of_longer
    else:
        n_first, n_second = n_of_longer, n_of_shorter
    # a text that stays whole may be empty, which truncate does not take
    if len(first) > n_first:
        first = truncate(first, n_first, keep, 0, 0)
    if len(second) > n_second:
        second = truncate(second, n_second, keep, 0, 0)
    prefix, suffix = ids[:n_prefix], ids[end:]
    return np.concatenate([prefix, first, pair_ids, second, suffix]).astype(ids.dtype)


def windows(ids, block_size, n_prefix, n_suffix):
    """
    All of a text's ids as windows of block_size: each has all special tokens and a part of the
    text. The parts are equally long, and overlap where the text is no multiple of them.

    n_prefix and n_suffix are as in truncate. A text of at most block_size is one window.
    Example: [1, 2, 3, 4, 5] without special tokens, block_size 2 -> [1, 2], [2, 3], [4, 5]
    """
    assert block_size > n_prefix + n_suffix, (block_size, n_prefix, n_suffix)
    ids = np.asarray(ids)
    if len(ids) <= block_size:
        return [ids]
    prefix = ids[:n_prefix]
    text = ids[n_prefix : len(ids) - n_suffix]
    suffix = ids[len(ids) - n_suffix :]

    part_size = block_size - n_prefix - n_suffix
    n_windows = -(-len(text) // part_size)  # rounded up, so at least 2
    last_start = len(text) - part_size
    windows_of_text = []
    for i in range(n_windows):
        start = i * last_start // (n_windows - 1)
        part = text[start : start + part_size]
        windows_of_text.append(np.concatenate([prefix, part, suffix]))
    return windows_of_text


# -----------------------------------------------------------------------------
# batches


def epoch_batches(split, batch_size, seed, epoch, balanced=False):
    """
    Yields arrays of row indices of up to batch_size.

    Unless balanced, an epoch visits every text once. A batch holds texts of similar length, so that
    little is padded. The order depends on seed and epoch alone.

    balanced: rows are drawn with replacement so that labels are equally frequent.
    """
    n_rows = len(split)
    rng = np.random.default_rng((seed, epoch))
    if balanced:
        label_counts = np.bincount(split.labels)
        weights = 1.0 / label_counts[split.labels]
        order = rng.choice(n_rows, n_rows, p=weights / weights.sum())
    else:
        order = rng.permutation(n_rows)

    # Sort by length within buckets of up to 64 batches. Sorting the whole epoch at once would put
    # the same texts together in every epoch, so there are at least 8 buckets; of fewer than 8
    # batches each is a bucket.
    bucket_batches = n_rows // (8 * batch_size)
    bucket_batches = min(max(bucket_batches, 1), 64)
    bucket_size = bucket_batches * batch_size
    for start in range(0, n_rows, bucket_size):
        bucket = order[start : start + bucket_size]
        lengths = split.offsets[bucket + 1] - split.offsets[bucket]
        bucket = bucket[np.argsort(lengths, kind='stable')]
        batches = [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
        for i in rng.permutation(len(batches)):
            yield batches[i]


def pad_rows(texts, max_length=0):
    """
    List of B id arrays -> idx (B, T) int64 with zeros on the right, and lengths (B,) int64.

    0 is also the id of a real token, so only lengths tells the padding apart from it.

    T is the longest text's length. With max_length it is rounded up so that batches have few
    different shapes: to a multiple of 8 up to 64, of 16 up to 128, of 32 up to 256, and so on, but
    to no more than max_length, which no text may exceed.
    """
    lengths = np.array([len(ids) for ids in texts], dtype=np.int64)
    T = int(lengths.max())
    if max_length:
        assert T <= max_length, (T, max_length)
        multiple = max(8, 2 ** (T.bit_length() - 3))
        T = -(-T // multiple) * multiple  # rounded up
        T = min(T, max_length)
    idx = np.zeros((len(texts), T), dtype=np.int64)
    for i, ids in enumerate(texts):
        idx[i, : len(ids)] = ids
    return idx, lengths
