# python -m pytest tests/test_tokenizer.py
"""Tokens are what the model sees: the same text must give the same ids in training, at test and a year later."""

import builtins
import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import regex
from conftest import in_time
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tokenizer
from tokenizer import PATTERN, cut, get_tokenizer, load_tokenizer, train_bpe

ROOT = Path(__file__).resolve().parent.parent
RAW = os.environ.get('NANOSENTIMENT_RAW')
CORPUS = [
    "Customer: I'm not happy, the parcel hasn't come in 14 days!\n\nAgent: I'm sorry to hear that; it'll come today.",
    'the film is not bad , not bad at all -- it is a charming , funny and moving film',
    'ein schöner Film, naïve façade 😀😀 映画はとても面白い',
    'not the not the not the parcel parcel   \n\n\n parcel',
] * 2
CORPUS.append('aaaaaaaaaaaaaaaaaaaaaaaa abababab ' + 'x' * 200)
MEGABYTES = [
    'a' * 10**6,
    ' ' * 10**6,
    ' ' * 10**6 + 'x',
    'x' + ' \n' * 500_000 + 'x',
    'an ox ' * 170_000,
    '映' * 340_000,
]


@pytest.fixture(scope='module')
def prefixed():
    return get_tokenizer('bpe400-prefix', CORPUS)


@pytest.fixture(scope='module')
def bpe():
    return get_tokenizer('bpe400', CORPUS)


@pytest.fixture(scope='module')
def gpt2():
    folder = os.environ.get('TIKTOKEN_CACHE_DIR') or (RAW and os.path.join(RAW, 'tiktoken_cache'))
    if not folder or not os.path.exists(os.path.join(folder, '6d1cbeee0f20b3d9449abfede4726ed8212e3aee')):
        pytest.skip('no GPT-2 vocabulary at hand: set TIKTOKEN_CACHE_DIR')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('TIKTOKEN_CACHE_DIR', folder)
        return get_tokenizer('gpt2')


def slow_train(texts, n_vocab):
    """The rule of train_bpe with every pair counted afresh for every merge, and no heap."""
    words = Counter(word for text in texts for piece in cut(text, 64) for word in regex.findall(PATTERN, piece))
    words = [([bytes([byte]) for byte in word.encode()], n) for word, n in words.items()]
    ranks = {bytes([i]): i for i in range(256)}
    while len(ranks) < n_vocab - 1:
        count = Counter()
        for word, n in words:
            for a, b in zip(word, word[1:], strict=False):
                count[a + b] += n
        if max(count.values(), default=0) < 2:
            break
        new = min(count, key=lambda pair: (-count[pair], pair))
        assert new not in ranks, 'no bytes are learned twice'
        ranks[new] = len(ranks)
        words = [(naive(b''.join(word), {new: 0}, word), n) for word, n in words]
    return ranks


def naive(word, ranks, parts=None):
    """Bytes of one pre-token -> tokens: join the neighbours of the lowest rank, leftmost first, until none is left."""
    parts = list(parts or [bytes([byte]) for byte in word])
    while True:
        known = [(ranks[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in ranks]
        if not known:
            return parts
        _, i = min(known)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def merges(ranks):
    return sorted(ranks, key=ranks.get)[256:]


def test_merges_worked_by_hand():
    """
    'abab ab' is the pre-tokens 'abab' and ' ab'. Joined pairs: ab 3, ba 1, ' a' 1. ab is learned; then abab 1, ' ab' 1:
    nothing occurs twice. Twice the text: ab 6; then ' ab' 2 and abab 2 tie, and ' ' (0x20) is before 'a' (0x61).
    """
    assert merges(train_bpe(['abab ab'], 1000)) == [b'ab']
    assert merges(train_bpe(['abab ab'] * 2, 1000)) == [b'ab', b' ab', b'abab']
    assert merges(train_bpe(['zy', 'zy', 'ba', 'ba', 'zx', 'zx'], 1000)) == [b'ba', b'zx', b'zy']
    assert merges(train_bpe(['abab ab'] * 2, 258)) == [b'ab'], '256 bytes, one merge and the end of text make 258'
    assert merges(train_bpe(['aaaa', 'aaaa'], 1000)) == [b'aa', b'aaaa'], 'aa is there 3 times a word, but joins twice'
    assert list(train_bpe(iter(['']), 1000).values()) == list(range(256))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.text('ab \n', max_size=30), max_size=8), st.integers(257, 300))
@example(CORPUS, 500)
@example(['abc', 'ab', 'ab', 'bc', 'bc', 'bc', 'aabcbc', 'abcabc'], 400)
def test_counting_as_one_goes_is_counting_afresh(texts, n_vocab):
    """The heap and the running counts are where a BPE trainer goes wrong, quietly: a worse vocabulary still trains."""
    assert train_bpe(texts, n_vocab) == slow_train(texts, n_vocab)


def test_the_ranks_follow_from_the_corpus_alone(bpe):
    """Rank order decides every id in a checkpoint; the order of rows or of a hash must not."""
    assert get_tokenizer('bpe400', iter(CORPUS[::-1])).sha256 == bpe.sha256
    code = 'import json, sys; from tokenizer import get_tokenizer as g; print(g("bpe400", json.load(sys.stdin)).sha256)'
    for seed in ['1', '2']:
        done = subprocess.run(
            [sys.executable, '-c', code],
            input=json.dumps(CORPUS),
            env={**os.environ, 'PYTHONHASHSEED': seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == bpe.sha256, done.stderr


@settings(deadline=None)
@given(st.text())
@example('')
@example('a\r\nb\x00\ufeff')
@example('<|endoftext|>')
def test_decode_undoes_encode(bpe, text):
    """Errors are shown decoded, so what is shown must be what was seen."""
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text and ids.count(bpe.end) == 1 and ids[-1] == bpe.end == bpe.n_vocab - 1


@settings(deadline=None)
@given(st.text())
@example(' good')
def test_with_prefix_the_first_word_is_no_stranger(bpe, prefixed, text):
    """'good' at the start of a phrase has a row of its own elsewhere, and short phrases are little but a start."""
    assert prefixed.decode(prefixed.encode(text)) == text
    inside, alone = prefixed.encode('an parcel')[-2], prefixed.encode('parcel')
    assert alone == [inside, prefixed.end] and load_tokenizer(prefixed.state()).encode(text) == prefixed.encode(text)
    assert bpe.encode('parcel') != alone  # which is what it is for


@settings(deadline=None)
@given(st.text())
@example("\ufeff it's  <|endoftext|>\n\n x ")
def test_decode_undoes_encode_gpt2(gpt2, text):
    """As above, with the vocabulary that GPT-2 was trained with."""
    assert gpt2.decode(gpt2.encode(text)) == text


@settings(deadline=None)
@given(st.text(st.sampled_from("abnot the parcel's 1映😀\n!"), max_size=60))
def test_tiktoken_reads_our_ranks_as_a_plain_encoder_would(bpe, text):
    """Learned by us, run by tiktoken: both must mean the same by a rank."""
    ranks = train_bpe(CORPUS, 400)
    words = regex.findall(PATTERN, text)
    assert bpe.encode(text)[:-1] == [ranks[part] for word in words for part in naive(word.encode(), ranks)]


def test_gpt2_ids_are_those_of_gpt2(gpt2):
    """Typed in by hand, from GPT-2's released vocabulary; pretrained embeddings are worthless under other ids."""
    assert gpt2.encode('Hello world') == [15496, 995, 50256]
    assert gpt2.encode('hello world') == [31373, 995, 50256]
    assert gpt2.encode('<|endoftext|>') == [27, 91, 437, 1659, 5239, 91, 29, 50256]
    assert (gpt2.n_vocab, gpt2.n_prefix, gpt2.n_suffix, gpt2.encode('')) == (50257, 0, 1, [50256])
    # r50k_base.tiktoken is published with this sha256, and is the same table in the same form
    assert gpt2.sha256 == '306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930'


def test_without_network_gpt2_says_both_ways_out(monkeypatch, tmp_path):
    """The first thing that a newcomer behind a proxy meets."""
    monkeypatch.setattr(tokenizer.tiktoken, 'get_encoding', lambda name: 1 / 0)
    with pytest.raises(ValueError) as e:
        get_tokenizer('gpt2')
    words = ['go online', 'TIKTOKEN_CACHE_DIR', 'vocab.bpe', 'encoder.json', 'ZeroDivisionError']
    assert all(word in str(e.value) for word in words) and '\n' not in str(e.value)
    for url, name in [('vocab.bpe', '6d1cbeee'), ('encoder.json', '6c7ea1a7')]:
        url = 'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/' + url
        assert hashlib.sha1(url.encode()).hexdigest()[:8] == name, 'tiktoken names a cached file by the sha1 of its URL'


def test_the_download_has_a_time_limit(monkeypatch, tmp_path):
    """tiktoken's own waits as long as a firewall is silent."""
    asked = {}

    def get(url, timeout=None):
        asked[url] = timeout
        raise OSError('silence')

    monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr('requests.get', get)
    monkeypatch.setattr(tokenizer.tiktoken.registry, 'ENCODINGS', {})  # else one loaded before is taken
    with pytest.raises(ValueError, match='OSError'):
        get_tokenizer('gpt2')
    assert list(asked.values()) == [20]


@pytest.mark.parametrize('text', MEGABYTES, ids=lambda text: repr(text[:3]))
def test_a_megabyte_is_encoded_in_seconds(bpe, text):
    """tiktoken 0.14 panics at a million spaces with a letter behind them; a row may well hold a base64 picture."""
    begun = time.perf_counter()
    ids = bpe.encode(text)
    train_bpe([text], 300)
    seconds = time.perf_counter() - begun
    assert bpe.decode(ids) == text
    in_time(seconds, 10)


@given(st.text('ab \n', max_size=60), st.integers(1, 9))
def test_cut_leaves_all_and_cuts_only_long_runs(text, n):
    """A text that needs no cut must be tokenised as everywhere else."""
    pieces = cut(text, n)
    assert ''.join(pieces) == text
    assert len(pieces) == 1 or regex.search(rf'\s{{{n}}}|\S{{{n}}}', text)
    assert not any(regex.search(rf'\s{{{n + 1}}}|\S{{{n + 1}}}', piece) for piece in pieces), 'too long a run is left'


def test_half_an_emoji_is_a_replacement_character(bpe):
    """Rows cut at a number of UTF-16 units hold lone surrogates; json.loads lets them in."""
    assert bpe.decode(bpe.encode('a\ud83db')) == 'a\ufffdb'
    assert bpe.decode(bpe.encode('\ud83d\ude00')) == '😀', 'two halves are one'
    assert train_bpe(['a\ud83db'], 300)


def test_a_batch_is_its_texts_in_order(bpe):
    """Threads must not shuffle rows under their labels."""
    texts = [f'{i} not the parcel' for i in range(1000)]
    assert bpe.encode_batch(texts) == [bpe.encode(text) for text in texts]
    assert bpe.encode_batch([]) == []


def test_a_checkpoint_carries_its_tokenizer(bpe):
    """Encoding test text with another vocabulary than training's was somebody's 40 %."""
    state = json.loads(json.dumps(bpe.state()))
    again = load_tokenizer(state)
    for key in ['name', 'n_vocab', 'n_prefix', 'n_suffix', 'sha256']:
        assert getattr(again, key) == getattr(bpe, key)
    assert again.encode_batch(CORPUS) == bpe.encode_batch(CORPUS) and again.state() == state
    assert (bpe.name, bpe.n_vocab, bpe.n_prefix, bpe.n_suffix) == ('bpe400', 400, 0, 1)
    assert get_tokenizer('bpe9999', ['tiny', 'tiny']).n_vocab == 256 + 3 + 1, 'ny, tiny, ... and no more to learn'


@pytest.mark.parametrize('name', ['bpe', 'bpe256', 'bpe65537', 'bpe-5', 'gpt3', '', 'no/such/folder'])
def test_a_wrong_name_is_one_line(name):
    """Scripts show this text as it is."""
    with pytest.raises(ValueError) as e:
        get_tokenizer(name, CORPUS)
    assert '\n' not in str(e.value)
    with pytest.raises(ValueError, match='training split'):
        get_tokenizer('bpe2048')


@pytest.fixture
def own(tmp_path):
    """A BERT's tokenizer.json from its real vocabulary, with the truncation and padding that such files come with."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is not installed')
    if not RAW or not os.path.exists(os.path.join(RAW, 'bert_uncased_vocab', 'vocab.txt')):
        pytest.skip('no BERT vocabulary at hand: set NANOSENTIMENT_RAW')
    with open(os.path.join(RAW, 'bert_uncased_vocab', 'vocab.txt'), encoding='utf-8') as f:
        vocab = {line.rstrip('\n'): i for i, line in enumerate(f)}
    own = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token='[UNK]'))
    own.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    own.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    own.add_special_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'])
    own.post_processor = tokenizers.processors.TemplateProcessing(
        single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 101), ('[SEP]', 102)]
    )
    own.decoder = tokenizers.decoders.WordPiece()
    own.enable_truncation(8)
    own.enable_padding(length=8)
    folder = tmp_path / 'models--google-bert--bert-base-uncased' / 'snapshots' / '86b5e093'
    folder.mkdir(parents=True)
    own.save(str(folder / 'tokenizer.json'))
    return folder


def test_a_checkpoints_own_tokenizer_is_run_as_its_file_says(own):
    """Ids typed in from BERT's vocabulary; [CLS] 101, [SEP] 102. Truncation and padding are ours to do, later."""
    tok = get_tokenizer(str(own))
    assert (tok.name, tok.n_vocab, tok.n_prefix, tok.n_suffix) == ('bert-base-uncased', 30522, 1, 1)
    assert tok.encode('') == [101, 102] and tok.encode('Hello world') == [101, 7592, 2088, 102]
    assert len(tok.encode('hello ' * 600)) == 602
    assert tok.encode_batch(['hello', 'Hello world']) == [[101, 7592, 102], [101, 7592, 2088, 102]]
    assert tok.decode(tok.encode('Hello world')) == 'hello world'
    ids = tok.encode('so [SEP] what')
    assert ids.count(102) == 1 and ids[-1] == 102, 'what a user types is no special token'
    assert tok.encode('a\ud83d') == tok.encode('a\ufffd')
    assert len(tok.encode('a' * 10**6)) == 3
    again = load_tokenizer(json.loads(json.dumps(tok.state())))
    assert again.encode('Hello world') == tok.encode('Hello world') and again.sha256 == tok.sha256
    text = (own / 'tokenizer.json').read_bytes()
    assert tok.sha256 == hashlib.sha256(text).hexdigest()
    assert get_tokenizer(str(own / 'tokenizer.json')).name == 'bert-base-uncased'


def test_special_tokens_of_other_families(tmp_path):
    """RoBERTa puts <s> </s>; GPT-2's file puts none, and a text without an end would leave the head nothing to read."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is not installed')

    def save(name, specials, single=None):
        own = tokenizers.Tokenizer(tokenizers.models.WordLevel({'<unk>': 0, 'a': 1, 'b': 2}, unk_token='<unk>'))
        own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        own.add_special_tokens(specials)
        if single:
            pairs = [(special, own.token_to_id(special)) for special in specials]
            own.post_processor = tokenizers.processors.TemplateProcessing(single=single, special_tokens=pairs)
        (tmp_path / name).mkdir()
        own.save(str(tmp_path / name / 'tokenizer.json'))
        return str(tmp_path / name)

    tok = get_tokenizer(save('roberta', ['<s>', '</s>'], '<s> $A </s>'))
    assert (tok.name, tok.encode('a b'), tok.n_prefix, tok.n_suffix) == ('roberta', [3, 1, 2, 4], 1, 1)
    tok = get_tokenizer(save('gpt', ['<|endoftext|>']))
    assert (tok.encode('a b'), tok.encode(''), tok.n_prefix, tok.n_suffix) == ([1, 2, 3], [3], 0, 1)
    assert tok.decode([1, 2, 3]) == 'a b'
    with pytest.raises(ValueError, match='no special token'):
        get_tokenizer(save('none', []))
    (tmp_path / 'none' / 'tokenizer.json').write_text('{}')
    with pytest.raises(ValueError, match='fetch the file again'):
        get_tokenizer(str(tmp_path / 'none'))


@pytest.mark.parametrize('added', ['', 'A&B'])
def test_texts_that_skip_the_normalizer_have_the_ids_of_those_that_do_not(tmp_path, added):
    """Lowercase ASCII goes past BERT's normalizer, to save a third of the time: not one character may fare otherwise there."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is not installed')
    letters = 'abcxyz0189&!'
    vocab = {token: i for i, token in enumerate(['[UNK]', '[CLS]', '[SEP]', *letters, *('##' + x for x in letters)])}
    theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token='[UNK]'))
    theirs.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    theirs.add_special_tokens(['[UNK]', '[CLS]', '[SEP]'])
    theirs.add_tokens([tokenizers.AddedToken(added, normalized=True)] if added else [])  # looked for in normalized text
    theirs.post_processor = tokenizers.processors.TemplateProcessing(
        single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 1), ('[SEP]', 2)]
    )
    theirs.save(str(tmp_path / 'tokenizer.json'))
    theirs.encode_special_tokens = True
    own = get_tokenizer(str(tmp_path))
    texts = [f'ab{chr(i)}xy' for i in range(0x180)] + ['', ' ', 'a&b', 'A&B [SEP] \n\nx', 'naïve café\u0301', 'x' * 200]
    for some in (texts, texts[::-1], ['abc', 'a\nb'], ['ABC'], []):
        assert own.encode_batch(some) == [encoding.ids for encoding in theirs.encode_batch(some)]
    assert added or own.coder.normalizer is None, 'none of them skipped it'


def test_without_the_optional_package_the_error_names_it(monkeypatch, tmp_path):
    """tokenizers is imported only for a tokenizer.json; whoever lacks it must learn what to type."""
    (tmp_path / 'tokenizer.json').write_text('{}')
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == 'tokenizers':
            raise ImportError("No module named 'tokenizers'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ValueError, match='pip install tokenizers'):
        get_tokenizer(str(tmp_path))


@pytest.mark.skipif(not RAW, reason='no raw data at hand: set NANOSENTIMENT_RAW')
@pytest.mark.parametrize('n_vocab, path', [(2048, 'customer_service/train.csv'), (8192, 'sst2/train.tsv')])
def test_real_corpora_take_seconds(n_vocab, path):
    """train.py prepares by itself what is missing: nobody should wait for the vocabulary."""
    path = os.path.join(RAW, path)
    if not os.path.exists(path):
        pytest.skip(f'{path} is not there')
    with open(path, newline='', encoding='utf-8') as f:
        if path.endswith('.csv'):
            texts = [row['conversation'] for row in csv.DictReader(f)]
        else:
            texts = [row['sentence'] for row in csv.DictReader(f, delimiter='\t', quoting=csv.QUOTE_NONE)]
    begun = time.perf_counter()
    tok = get_tokenizer(f'bpe{n_vocab}', texts)
    seconds = time.perf_counter() - begun
    assert tok.n_vocab == n_vocab
    assert all(tok.decode(ids) == text for ids, text in zip(tok.encode_batch(texts), texts, strict=True))
    in_time(seconds, 20)
