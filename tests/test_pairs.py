# python -m pytest tests/test_pairs.py
"""
Pairs of texts reach an encoder as they did in its own training: template, token types and cut.

A checkpoint that gets a pair in another form still answers, only worse, so that nobody notices.
"""

import csv
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import read_checkpoint

import prepare
from configurator import declared_settings
from model import Config, Transformer
from nanosentiment.checkpoint import Classifier
from nanosentiment.cleaning import clean, clean_or_keep
from nanosentiment.columns import find_columns, row_text
from nanosentiment.fast import predict
from nanosentiment.memmaps import Split, pad_rows, read_meta, truncate
from nanosentiment.pairs import PAIR_MARK, join_pair, show_pair, split_pair
from nanosentiment.tokenizer import get_tokenizer

transformers = pytest.importorskip('transformers')
from test_pretrained import TOLERANCE, load, make_checkpoint, run_in_float64  # noqa: E402

FAMILIES = ['bert', 'distilbert', 'roberta']
FILLER = 'the cat sat on a mat and it is red blue late kind rude here'
WORDS = FILLER.split()
# lengths in words; 24 positions hold the longest with its special tokens
PAIR_LENGTHS = [(9, 11), (1, 1), (3, 0), (0, 4), (2, 7), (12, 2)]


def save_tokenizer(folder, family):
    """A tokenizer of the family with a word or letter per token. Returns theirs and ours."""
    if family == 'roberta':
        tokens = ['<s>', '<pad>', '</s>', '<unk>', '<mask>', 'Ġ', *'abcdefghijklmnopqrstuvwxyz']
        vocab = {token: i for i, token in enumerate(tokens)}
        theirs = transformers.RobertaTokenizerFast(vocab=vocab, merges=[])
    else:
        tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS]
        vocab = {token: i for i, token in enumerate(tokens)}
        # DistilBERT's tokenizer is BERT's; its model just takes no token types
        theirs = transformers.BertTokenizerFast(vocab=vocab)
    theirs.save_pretrained(folder)
    return theirs, get_tokenizer(str(folder))


def make_pairs(family):
    """Pairs of several lengths: of words, or of letters where a letter is a token."""
    rng = random.Random(0)
    pairs = []
    for lengths in PAIR_LENGTHS:
        if family == 'roberta':
            pair = [''.join(rng.choices('abcdefgh', k=n)) for n in lengths]
        else:
            pair = [' '.join(rng.choices(WORDS, k=n)) for n in lengths]
        pairs.append(tuple(pair))
    return pairs


# -----------------------------------------------------------------------------
# the same numbers as theirs


@pytest.mark.parametrize('family', FAMILIES)
def test_a_pair_has_their_ids_and_their_logits(family, tmp_path):
    """Also empty texts, of which only the template is left."""
    their_model = make_checkpoint(tmp_path, family)
    their_tokenizer, tokenizer = save_tokenizer(tmp_path, family)
    pairs = make_pairs(family)
    firsts, seconds = zip(*pairs)
    inputs = their_tokenizer(list(firsts), list(seconds), padding=True, return_tensors='pt')
    if family != 'bert':
        inputs.pop('token_type_ids', None)

    encoded = tokenizer.encode_batch([join_pair(*pair) for pair in pairs])
    idx, lengths = pad_rows(encoded)
    model = load(tmp_path, pair_sep=tokenizer.pair_sep)
    _, logits = run_in_float64(model, torch.from_numpy(idx), torch.from_numpy(lengths))

    is_real = inputs['attention_mask'].bool()
    their_ids = [ids[real].tolist() for ids, real in zip(inputs['input_ids'], is_real)]
    assert encoded == their_ids
    with torch.no_grad():
        difference = (logits - their_model(**inputs).logits).abs().max().item()
    print(f'{family}: {difference:.1e}')
    assert difference < TOLERANCE


def test_without_token_types_the_numbers_are_others(tmp_path):
    """So the test above can fail."""
    make_checkpoint(tmp_path, 'bert')
    _, tokenizer = save_tokenizer(tmp_path, 'bert')
    idx, lengths = pad_rows(tokenizer.encode_batch([join_pair('the cat', 'sat here')]))
    batch = [torch.from_numpy(idx), torch.from_numpy(lengths)]
    _, right = run_in_float64(load(tmp_path, pair_sep=tokenizer.pair_sep), *batch)
    _, wrong = run_in_float64(load(tmp_path), *batch)
    assert (right - wrong).abs().max() > 1e-3


def test_a_single_text_gives_the_same_bits_with_and_without_pairs():
    """Whoever trains with pairs may still ask about one text, and padding is no second text."""
    torch.manual_seed(0)
    fields = {'causal': False, 'pool': 'first', 'n_type': 2, 'vocab_size': 50, 'n_layer': 2}
    model = Transformer(Config(pre_norm=False, **fields)).eval()
    torch.nn.init.normal_(model.wse.weight)
    idx = torch.randint(4, 50, (3, 9))
    lengths = torch.tensor([9, 4, 6])
    idx[torch.arange(3), lengths - 1] = 3
    idx[1, 7] = 3  # in the padding
    with torch.no_grad():
        expected, _ = model(idx, lengths)
        model.config.pair_sep = 3
        logits, _ = model(idx, lengths)
    assert logits.equal(expected)


@pytest.mark.parametrize('family, pair_ids, pair_sep', [('bert', [3], 3), ('roberta', [2, 2], -1)])
def test_the_template_is_read_from_the_file(family, pair_ids, pair_sep, tmp_path):
    """RoBERTa's two texts have the same token type, and GPT-2 knows no pairs."""
    _, tokenizer = save_tokenizer(tmp_path, family)
    assert tokenizer.pair_ids == pair_ids
    assert tokenizer.pair_sep == pair_sep
    assert tokenizer.decode(tokenizer.encode(join_pair('the', 'cat'))) == 'the | cat'
    assert tokenizer.decode(tokenizer.encode('the')) == 'the'
    assert not get_tokenizer('bpe300', ['the cat']).pair_ids


# -----------------------------------------------------------------------------
# too long a pair


@pytest.mark.parametrize('family', ['bert', 'roberta'])
def test_a_long_pair_is_cut_as_theirs(family, tmp_path):
    """Their longest_first: the longer text loses tokens until both are equally long."""
    theirs, tokenizer = save_tokenizer(tmp_path, family)
    rng = random.Random(1)
    for _ in range(300):
        n_first, n_second = rng.randint(1, 15), rng.randint(1, 15)
        first = ''.join(rng.choices('abcde', k=n_first))
        second = ''.join(rng.choices('abcde', k=n_second))
        if family == 'bert':
            first = ' '.join(rng.choices(WORDS, k=n_first))
            second = ' '.join(rng.choices(WORDS, k=n_second))
        block_size = rng.randint(6, 20)
        expected = theirs(first, second, truncation='longest_first', max_length=block_size)
        ids = tokenizer.encode(join_pair(first, second))
        cut = truncate(
            ids, block_size, 'first', tokenizer.n_prefix, tokenizer.n_suffix, tokenizer.pair_ids
        )
        assert list(cut) == expected['input_ids']


@pytest.mark.parametrize(
    'keep, expected',
    [
        ('first', [101, 1, 2, 102, 5, 6, 102]),
        ('last', [101, 3, 4, 102, 5, 6, 102]),
        ('both', [101, 1, 4, 102, 5, 6, 102]),
    ],
)
def test_keep_says_what_stays_of_each_text(keep, expected):
    ids = np.array([101, 1, 2, 3, 4, 102, 5, 6, 102], dtype=np.uint16)
    cut = truncate(ids, 7, keep, 1, 1, [102])
    assert cut.tolist() == expected
    assert cut.dtype == ids.dtype


def test_a_single_text_is_cut_as_ever():
    """With pair_ids too: the [SEP] at its end divides nothing."""
    ids = [101, 1, 2, 3, 4, 102]
    assert truncate(ids, 4, 'last', 1, 1, [102]).tolist() == [101, 3, 4, 102]
    assert truncate(ids, 4, 'last', 1, 1, [102]).tolist() == truncate(ids, 4, 'last', 1, 1).tolist()


# -----------------------------------------------------------------------------
# rows


def test_a_row_is_a_pair_with_two_texts():
    """Without one of them the label, which is about both, could not be learned."""
    columns = (['title', 'question'], ['answer'])
    text, reason = row_text({'title': 'Late', 'question': 'Why?', 'answer': ' So. '}, *columns)
    assert split_pair(text) == ('Late\nWhy?', 'So.')
    assert reason == ''
    assert row_text({'title': 'a', 'answer': ' '}, *columns) == ('', 'no second text')
    assert row_text({'title': '', 'answer': 'b'}, *columns) == ('', 'no text')
    assert row_text({'title': 'a', 'answer': ['b']}, *columns)[1].startswith('answer is a list')


def test_the_mark_in_a_text_of_a_user_divides_nothing():
    recipe = declared_settings(vars(prepare))
    del recipe['text_pair_column']  # the recipe of single texts has none
    assert split_pair(join_pair(f'x{PAIR_MARK}y', f'z{PAIR_MARK}')) == ('x y', 'z ')
    assert clean(f'x{PAIR_MARK}y', recipe) == 'x y'
    assert show_pair(join_pair('x', 'y')) == 'x | y'


def test_each_text_of_a_pair_is_cleaned_by_itself():
    """A speaker or tag of the first must not reach into the second."""
    settings = declared_settings(vars(prepare)) | {'text_pair_column': 'b', 'lowercase': True}
    pair = join_pair(' A <b>  B ', '</b> C\n\nD ')
    assert clean_or_keep(pair, settings) == (join_pair('a <b> b', 'c\nd'), False)
    assert clean_or_keep(join_pair('A', '<br>'), settings) == (join_pair('a', '<br>'), True)
    assert clean('A', settings) == 'a'


def test_a_pair_may_not_tell_the_label():
    table = SimpleNamespace(
        path='x.csv', kind='csv', is_json=False, columns=['a', 'b', 'c'], notes=[]
    )
    columns = find_columns(table, 'a', 'c', text_pair_column='b')
    assert columns['text_pair_column'] == ['b']
    with pytest.raises(ValueError, match='text_pair_column and label_column both name'):
        find_columns(table, 'a', 'c', text_pair_column='c')
    with pytest.raises(ValueError, match="no column 'd'; set --text_pair_column to one of a, b, c"):
        find_columns(table, 'a', 'c', text_pair_column='d')


# -----------------------------------------------------------------------------
# from a table to answers


def write_pairs(path, n):
    """n rows: is the second text about the same as the first?"""
    rng = random.Random(0)
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['question', 'answer', 'mood'])
        for i in range(n):
            first = ' '.join(rng.choices(WORDS, k=rng.randint(1, 14)))
            second = ' '.join(rng.choices(WORDS, k=rng.randint(1, 14)))
            label = 'other'
            if i % 2 == 0:
                second = first
                label = 'same'
            writer.writerow([first, second, label])


@pytest.fixture(scope='module')
def checkpoint_folder(tmp_path_factory):
    """A tiny BERT that anything can be learned from."""
    folder = tmp_path_factory.mktemp('checkpoint')
    make_checkpoint(folder, 'bert')
    save_tokenizer(folder, 'bert')
    return folder


def pair_flags(tmp_path):
    write_pairs(tmp_path / 'rows.csv', 60)
    return [
        f'--dataset={tmp_path}/rows.csv',
        f'--data_dir={tmp_path}/data',
        f'--out_dir={tmp_path}/run',
        '--text_column=question',
        '--text_pair_column=answer',
        '--label_column=mood',
        '--block_size=12',
        '--batch_size=8',
        '--device=cpu',
        '--dtype=float32',
    ]


def test_a_table_of_pairs_is_trained_on_evaluated_and_answered(
    tmp_path, checkpoint_folder, run_here
):
    flags = pair_flags(tmp_path)
    train = [f'--init_from={checkpoint_folder}', '--max_iters=6', '--eval_interval=3']
    result = run_here('train.py', *flags, *train)
    checkpoint = read_checkpoint(tmp_path / 'run' / 'best.pt')
    assert checkpoint['config']['pair_sep'] == 3
    assert checkpoint['recipe']['text_pair_column'] == 'answer'
    assert result.last['test']

    # the answers are those of the prepared test rows, which are cut, too
    classifier = Classifier(f'{tmp_path}/run', device='cpu')
    folder = prepare.prepare(checkpoint['settings'])
    split = Split(folder, 'test', 12, 'last')
    assert max(len(ids) for ids in Split(folder, 'test')) > 12
    expected = classifier.probabilities(predict(classifier.model, split))
    with open(tmp_path / 'rows.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    pairs = [(rows[i]['question'], rows[i]['answer']) for i in split.rows]
    answers = classifier(pairs)
    for answer, p in zip(answers, expected):
        assert list(answer['probabilities'].values()) == pytest.approx(p.tolist(), abs=1e-4)

    # a table in use, under the names of training and under others
    for names, flags_of_names in [
        (('question', 'answer'), []),
        (('a', 'b'), ['--text_column=a', '--text_pair_column=b']),
    ]:
        with open(tmp_path / 'use.csv', 'w', newline='', encoding='utf-8') as f:
            csv.writer(f).writerows([(*names, 'mood'), *((*pair, 'same') for pair in pairs)])
        files = [f'--input={tmp_path}/use.csv', f'--output={tmp_path}/answers.csv']
        where = [f'--out_dir={tmp_path}/run', '--device=cpu']
        run_here('sample_classify.py', *where, *files, *flags_of_names)
        with open(tmp_path / 'answers.csv', newline='', encoding='utf-8') as f:
            given = [(row['label'], float(row['probability'])) for row in csv.DictReader(f)]
        assert given == [(answer['label'], answer['probability']) for answer in answers]

        # and with labels, in evaluate.py
        result = run_here('evaluate.py', *where, files[0], *flags_of_names)
        assert result.last['accuracy'] == np.mean([a['label'] == 'same' for a in answers])
    with open(tmp_path / 'run' / 'predictions-input.csv', newline='', encoding='utf-8') as f:
        assert [row['text'] for row in csv.DictReader(f)] == [f'{a} | {b}' for a, b in pairs]

    # a single text is still one
    assert classifier(['the cat'])[0]['label'] in ('same', 'other')
    with pytest.raises(ValueError, match='windows are not made of pairs'):
        Classifier(f'{tmp_path}/run', device='cpu', windows=True)
    first = read_meta(folder, 'report.json')['example']
    row = rows[first['row']]
    assert first['text'] == f'{row["question"]} | {row["answer"]}'


@pytest.mark.parametrize('tokenizer', ['auto', 'bpe300'])
def test_a_tokenizer_without_pairs_is_refused(tmp_path, run_here, tokenizer):
    result = run_here('train.py', *pair_flags(tmp_path), f'--tokenizer={tokenizer}', status=2)
    assert result.err.count('\n') == 1
    assert 'text_pair_column needs a checkpoint that was trained with pairs' in result.err
    assert '--init_from=minilm or bert-base-uncased' in result.err


def test_a_causal_model_is_refused(tmp_path, run_here, checkpoint_folder):
    """From scratch: it has never met a separator, and no token types."""
    sizes = ['--n_layer=1', '--n_head=1', '--n_embd=8', f'--tokenizer={checkpoint_folder}']
    result = run_here('train.py', *pair_flags(tmp_path), *sizes, status=2)
    assert 'text_pair_column needs a checkpoint that was trained with pairs' in result.err


def test_a_block_that_holds_no_token_of_each_text_is_refused(tmp_path, run_here, checkpoint_folder):
    flags = [*pair_flags(tmp_path), f'--init_from={checkpoint_folder}', '--block_size=4']
    result = run_here('train.py', *flags, status=2)
    assert 'block_size 4 leaves no room for text beside 3 special tokens; set it above 4' in (
        result.err
    )


def test_pairs_are_for_runs_that_were_trained_with_pairs(trained, tmp_path, run_here):
    """One text of the two would be dropped, or both be read as one."""
    with pytest.raises(ValueError, match='was trained with single texts, not pairs'):
        Classifier(trained.out_dir, device='cpu')([('a', 'b')])

    (tmp_path / 'use.csv').write_text('body,other,mood\na,b,good\n')
    flags = [f'--out_dir={trained.out_dir}', f'--input={tmp_path}/use.csv', '--device=cpu']
    for script in ('sample_classify.py', 'evaluate.py'):
        result = run_here(script, *flags, '--text_pair_column=other', status=2)
        assert 'trained with single texts' in result.err
        assert 'leave' in result.err
