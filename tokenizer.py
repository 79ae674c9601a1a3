"""Text to ids and back: byte-level BPE learned from a corpus, GPT-2's own, or a checkpoint's. Mistakes: ValueError."""

import base64
import hashlib
import heapq
import os
from collections import Counter, defaultdict
from functools import cache

import regex  # comes with tiktoken, as requests does; re knows no \p{L}
import tiktoken.load

# what may join into a token: GPT-2's rule (github.com/openai/gpt-2, encoder.py); ++ (never give back) only makes it faster
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def cut(text, n=4096):  # tiktoken overflows at a million spaces
    """Text -> list of pieces that join to it, cut in runs of n white or n other characters; half an emoji is U+FFFD."""
    text = text if text.isascii() else text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
    runs = regex.finditer(rf'\s{{1,{n}}}|\S{{1,{n}}}', text) if len(text) > n else ()
    ends = [run.end() for run in runs if run.end() - run.start() == n]
    return [text[i:j] for i, j in zip([0, *ends], [*ends, len(text)], strict=True)]


def train_bpe(texts, n_vocab):
    """
    Iterable of texts (read once, not held) -> ranks {bytes: int}: 256 bytes, then merges in the order learned, until n_vocab
    with <|endoftext|>, or no pair occurs twice. Of equally frequent pairs the smaller bytes go first: order does not matter.
    Example: ['abab ab'] has 'ab' 3 times, ' a' and 'ba' once -> 256: b'ab', and nothing more occurs twice
    """
    # cut at 64, for learning costs a word's length per merge, and no longer token is worth its row
    seen = Counter(word for text in texts for piece in cut(text, 64) for word in regex.findall(PATTERN, piece))
    words, freq = [[bytes([byte]) for byte in word.encode()] for word in seen], list(seen.values())
    count, where = Counter(), defaultdict(set)  # joined pair -> occurrences, -> words that have it, or had it once
    for i, word in enumerate(words):
        for pair in map(bytes.__add__, word, word[1:]):
            count[pair] += freq[i]
            where[pair].add(i)
    heap = sorted((-n, pair) for pair, n in count.items())  # a heap, by count, then by bytes: that is the tie rule
    ranks = {bytes([i]): i for i in range(256)}
    while len(ranks) < n_vocab - 1 and heap and heap[0][0] < -1:  # what occurs once teaches nothing
        n, new = heapq.heappop(heap)
        if -n != count[new]:  # entries may promise too much, never too little: back in with today's count
            heapq.heappush(heap, (-count[new], new))
            continue
        ranks[new] = len(ranks)
        grown = set()
        for i in where.pop(new):
            old, words[i] = words[i], (word := [])
            for k, part in enumerate(old):  # left to right, as the encoder will
                if word and word[-1] + part == new:
                    a = word.pop()
                    pairs = [(x + a, x + new) for x in word[-1:]] + [(part + x, new + x) for x in old[k + 1 : k + 2]]
                    for lost, gained in pairs:
                        count[lost] -= freq[i]
                        count[gained] += freq[i]
                        where[gained].add(i)
                        grown.add(gained)
                    part = new
                word.append(part)
        for pair in grown:
            heapq.heappush(heap, (-count[pair], pair))
    return ranks


class Tokenizer:
    """Byte-level BPE run by tiktoken. A text's ids end with <|endoftext|>, the token that a GPT's head reads."""

    def __init__(self, name, text):
        self.kind, self.name, self.text, self.n_prefix, self.n_suffix = 'bpe', name, text, 0, 1
        self.lead = ' ' * name.endswith('-prefix')  # makes a text's first word the token that it is elsewhere
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, text.splitlines())}
        self.end, self.n_vocab = len(ranks), len(ranks) + 1
        self.coder = tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={'<|endoftext|>': self.end})

    def encode(self, text):
        """Text -> list of ids, special tokens included; special tokens that a user types are ordinary text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts):
        """List of texts -> list of lists of ids; threads were no faster here, for their turns cost more than a text."""
        return [[i for part in cut(self.lead + text) for i in self.coder.encode_ordinary(part)] + [self.end] for text in texts]

    def decode(self, ids):
        """Ids -> text without the special tokens; a character cut in two shows as U+FFFD."""
        return self.coder.decode([int(i) for i in ids if i != self.end]).removeprefix(self.lead)

    def state(self):
        """Dict of str for a checkpoint, all that load_tokenizer needs; text is 'base64 rank' lines, or the json."""
        return {key: getattr(self, key) for key in ('kind', 'name', 'text')}


class JsonTokenizer(Tokenizer):
    """A checkpoint's own tokenizer.json, which says itself what special tokens go around a text."""

    def __init__(self, name, text, bare=True):
        self.kind, self.name, self.text, self.sha256 = 'json', name, text, hashlib.sha256(text.encode()).hexdigest()
        try:
            self.coder = own = __import__('tokenizers').Tokenizer.from_str(text)  # optional, and only for these
        except Exception as e:  # not installed, too old for the file, a broken file
            raise ValueError(f'{name}/tokenizer.json: {e}; pip install tokenizers, or fetch the file again') from None
        own.no_truncation()  # files come with a max_length of 128 or 512; we cut later, and say how much
        own.no_padding()
        own.encode_special_tokens = True  # [SEP] typed by a user: ordinary text
        kinds, added = [type(x).__name__ for x in (own.normalizer, own.pre_tokenizer)], own.get_added_tokens_decoder().values()
        bare = bare and kinds == ['BertNormalizer', 'BertPreTokenizer'] and all(token.special for token in added)
        self.full = cache(lambda: JsonTokenizer(name, text, bare=False).coder) if bare else lambda: own
        own.normalizer = None if bare else own.normalizer  # a third of the time; lowercase ASCII it leaves as it is
        ids = own.encode('').ids
        self.tail = [] if ids else [own.token_to_id('<|endoftext|>')]  # GPT-2's file leaves it out, its family ends with it
        if None in self.tail:
            raise ValueError(f'{name}/tokenizer.json puts no special token around a text; use another model')
        self.lead, self.end, self.n_vocab = '', None, max(own.get_vocab().values()) + 1  # not the count: ids may have gaps
        self.n_prefix, self.n_suffix = (n := [*own.encode('a').special_tokens_mask, 0].index(0)), len(ids + self.tail) - n

    def encode_batch(self, texts):
        odd = {i: x for i, x in enumerate(texts) if not (x.isascii() and x.islower() and x.replace('\n', '').isprintable())}
        odd = dict(zip(odd, self.full().encode_batch_fast([''.join(cut(x)) for x in odd.values()]))) if odd else {}
        plain = self.coder.encode_batch_fast(['' if i in odd else x for i, x in enumerate(texts)])
        return [odd.get(i, encoding).ids + self.tail for i, encoding in enumerate(plain)]


def get_tokenizer(name, texts=None):
    """'gpt2', 'bpe<N>' or 'bpe<N>-prefix' learned from texts, or a (folder with a) tokenizer.json -> Tokenizer."""
    path = os.path.abspath(os.path.join(name, 'tokenizer.json') if os.path.isdir(name) else name)
    if os.path.isfile(path):  # named after its folder, but in a cache that is only a hash
        hub = r'(models--)?([^/\\]*--)?([^/\\]+)[/\\](snapshots[/\\][^/\\]+|main|[0-9a-f]{40}|model)$'
        folder = os.path.basename(regex.sub(hub, r'\3', os.path.dirname(path)))
        with open(path, encoding='utf-8') as f:
            return JsonTokenizer(regex.sub(r'[^\w.-]', '_', folder), f.read())
    if name == 'gpt2':
        tiktoken.load.read_file = lambda url: __import__('requests').get(url, timeout=20).content  # theirs may hang
        try:
            bpe = tiktoken.get_encoding(name)  # 1.5 MB, once
        except Exception as e:  # no network, a proxy, a folder that cannot be written, a broken file, ...
            files = '6d1cbeee0f20b3d9449abfede4726ed8212e3aee and 6c7ea1a7e38e3a7f062df639a5b80947f075ffe6'
            way_out = f'go online once, or set TIKTOKEN_CACHE_DIR to a folder with vocab.bpe and encoder.json as {files}'
            raise ValueError(f'gpt2 needs its vocabulary ({type(e).__name__}); {way_out}') from None
        ranks = {bpe.decode_single_token_bytes(i): i for i in range(bpe.n_vocab - 1)}
    elif (n := regex.fullmatch(r'bpe(\d{1,9})(-prefix)?', name)) and 257 <= int(n[1]) <= 65536 and texts is not None:
        ranks = train_bpe((' ' + text for text in texts) if n[2] else texts, int(n[1]))
    else:
        raise ValueError(f"no tokenizer '{name}'; use gpt2, bpe<N>[-prefix] of a training split (257-65536) or tokenizer.json")
    return Tokenizer(name, ''.join(f'{base64.b64encode(token).decode()} {rank}\n' for token, rank in ranks.items()))


def load_tokenizer(state):
    """What state() gave -> Tokenizer."""
    return (JsonTokenizer if state['kind'] == 'json' else Tokenizer)(state['name'], state['text'])
