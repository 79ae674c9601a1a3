# python -m pytest tests/test_unlabelled.py
"""Texts without labels, to learn a language from: any table or .txt, and nothing else changes."""

import os

import numpy as np
import pytest
from conftest import write_rows
from test_prepare import (
    decode,
    make_rows,
    make_settings,
    read_rejected,
    run_prepare,
    texts_by_split,
    write_csv,
    write_hundred_rows,
    write_jsonl,
)

import prepare
from nanosentiment.columns import find_columns
from nanosentiment.memmaps import Blocks, Split, read_meta
from nanosentiment.tables import Table

TEXTS = [text for text, _ in make_rows(60, 'x')]


@pytest.fixture
def prepare_texts(tmp_path):
    """A function: a file's path, changed settings -> the prepared folder."""

    def prepare_file(path, **changes):
        columns = {'text_column': '', 'label_column': '', 'labelled': False}
        return prepare.prepare(make_settings(tmp_path, path, **columns | changes))

    return prepare_file


def write_txt(path, texts):
    path.write_text(''.join(f'{text}\n' for text in texts))
    return str(path)


# -----------------------------------------------------------------------------
# rows


def test_each_line_of_a_txt_is_a_text(tmp_path, prepare_texts, capsys):
    """Blank lines stand between paragraphs: they are no rows that could be lost."""
    lines = []
    for text in TEXTS:
        lines += [text, '', ' ']
    folder = prepare_texts(write_txt(tmp_path / 'texts.txt', lines))

    assert os.path.basename(os.path.dirname(folder)) == 'texts'
    assert read_meta(folder)['rows'] == {'train': 54, 'val': 6}
    texts = decode(folder, 'train') + decode(folder, 'val')
    assert sorted(texts) == sorted(TEXTS)
    assert read_rejected(folder) == []
    rows = Split(folder, 'train').rows
    assert [lines[row] for row in rows] == decode(folder, 'train')
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_only_column_needs_no_name(tmp_path, prepare_texts):
    csv_path = write_csv(tmp_path / 'a.csv', [[text] for text in TEXTS], ['whatever'])
    json_path = write_jsonl(tmp_path / 'b.jsonl', [{'said': text} for text in TEXTS])
    for path in (csv_path, json_path):
        texts = sum(texts_by_split(prepare_texts(path)).values(), [])
        assert sorted(texts) == sorted(TEXTS)


def test_of_several_columns_one_must_be_named(tmp_path, prepare_texts):
    path = write_hundred_rows(tmp_path / 'x.csv')
    message = 'text_column is not set; set --text_column to one of body, mood'
    with pytest.raises(ValueError, match=message):
        prepare_texts(path)
    folder = prepare_texts(path, text_column='body')
    assert read_meta(folder)['rows'] == {'train': 90, 'val': 10}


def test_a_label_is_neither_needed_nor_read(tmp_path, prepare_texts):
    """A row whose label is missing, or a list, is a text like any other."""
    rows = [{'body': text, 'mood': mood} for text, mood in zip(TEXTS, [None, ['a'], 'b'] * 20)]
    path = write_jsonl(tmp_path / 'x.jsonl', rows)
    folder = prepare_texts(path, text_column='body', label_column='mood', label_names='b=c')
    assert read_meta(folder, 'report.json')['rejected'] == 0
    meta = read_meta(folder)
    assert meta['labels'] == []
    assert meta['unknown_labels'] == []
    for name in meta['rows']:
        assert not Split(folder, name).labels.any()
    assert prepare_texts(path, text_column='body') == folder, 'no setting of labels matters'


def test_nothing_is_said_of_labels(tmp_path, prepare_texts, capsys):
    """A single text would be a label with one row only."""
    folder = prepare_texts(write_txt(tmp_path / 'x.txt', ['a single text']))
    assert read_meta(folder)['rows'] == {'train': 1}
    assert read_meta(folder, 'report.json')['files']['train']['notes'] == []
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_row_without_a_text_is_still_rejected(tmp_path, prepare_texts):
    rows = [[text, 'a'] for text in TEXTS] + [['', 'a']]
    folder = prepare_texts(write_csv(tmp_path / 'x.csv', rows), text_column='body')
    assert read_rejected(folder) == [(62, 'no text')]


# -----------------------------------------------------------------------------
# splits


def test_no_test_split_is_taken_from_the_texts(tmp_path, prepare_texts):
    """There is nothing to test, but a file of test texts is kept apart."""
    path = write_txt(tmp_path / 'x.txt', TEXTS)
    folder = prepare_texts(path, test_fraction=0.3)
    assert read_meta(folder)['rows'] == {'train': 54, 'val': 6}
    assert prepare_texts(path, test_fraction=0.1) == folder
    assert read_meta(prepare_texts(path, val_fraction=0.0))['rows'] == {'train': 60}

    test_file = write_txt(tmp_path / 'test.txt', ['new', 'newer', TEXTS[0]])
    folder = prepare_texts(path, test_file=test_file)
    assert read_meta(folder)['rows'] == {'train': 54, 'val': 6, 'test': 3}
    assert read_meta(folder, 'report.json')['test_texts_in_train'] == 1


def test_a_split_column_works_as_with_labels(tmp_path, prepare_texts):
    rows = [(text, 'ab'[i % 2], ['train', 'dev', 'test'][i % 3]) for i, text in enumerate(TEXTS)]
    path = write_csv(tmp_path / 'x.csv', rows, ('body', 'mood', 'part'))
    folder = prepare_texts(path, text_column='body', split_column='part')
    assert read_meta(folder)['rows'] == {'train': 20, 'val': 20, 'test': 20}
    with pytest.raises(ValueError, match='no training row .*; is --split_column=mood right'):
        prepare_texts(path, text_column='body', split_column='mood', max_rejected=1.0)


def test_repeats_stay_on_one_side(tmp_path, prepare_texts):
    """A text that is known by heart would make the validation loss too good."""
    folder = prepare_texts(write_txt(tmp_path / 'x.txt', TEXTS * 3), val_fraction=0.3)
    texts = texts_by_split(folder)
    assert not set(texts['train']) & set(texts['val'])
    assert len(texts['val']) == 3 * 18
    assert read_meta(folder, 'report.json')['repeated_rows'] == 120


# -----------------------------------------------------------------------------
# the recipe


def test_without_labels_it_is_other_data(tmp_path, prepare_texts):
    """A run is never given the data of another, and old recipes have no such key."""
    path = write_hundred_rows(tmp_path / 'x.csv')
    settings = {'text_column': 'body', 'label_column': 'mood', 'test_fraction': 0.0}
    without = prepare_texts(path, **settings)
    labelled = prepare_texts(path, labelled=True, **settings)
    assert without != labelled
    assert read_meta(without)['recipe']['labelled'] is False
    assert 'labelled' not in read_meta(labelled)['recipe']


def test_a_known_data_set_needs_no_column(tmp_path, prepare_texts):
    """Its label is left out of the text, too."""
    folder = prepare_texts('demo', tokenizer='bpe300')
    meta = read_meta(folder)
    assert meta['rows'] == {'train': 6385, 'val': 709, 'test': 788}
    assert meta['labels'] == []
    assert meta['recipe']['columns'] == ['text', '']


# -----------------------------------------------------------------------------
# what the user can correct


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('x.txt', '', 'x.txt has no rows; is it the right file'),
        ('x.txt', '\n \n', 'x.txt has no rows; is it the right file'),
        ('x.csv', '', 'x.csv is empty'),
        ('x.csv', 'a\n', 'x.csv has no rows'),
        ('x.csv', 'a,b\n,c\n,d\n', 'text_column is not set; set --text_column to one of a, b'),
        ('x.jsonl', '{"a": "b", "c": "d"}\n', "has the key ''; set --text_column to one of a, c"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, prepare_texts, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        prepare_texts(path, max_rejected=1.0)
    assert '\n' not in str(error.value)


def test_no_usable_row_is_an_error(tmp_path, prepare_texts):
    path = tmp_path / 'x.csv'
    path.write_text('body,mood\n,a\n,b\n')
    with pytest.raises(ValueError, match='no training row .*; is --text_column=body right'):
        prepare_texts(path, text_column='body', max_rejected=1.0)


def test_with_labels_a_txt_is_still_refused(tmp_path):
    table = Table(write_txt(tmp_path / 'x.txt', TEXTS))
    with pytest.raises(ValueError, match='plain text, which has no labels'):
        find_columns(table, 'text', 'label')
    assert find_columns(table, '', '', is_labelled=False) == {'text_column': ['text']}


# -----------------------------------------------------------------------------
# the report and the command


def test_the_report_needs_no_labels(tmp_path, prepare_texts, capsys):
    write_rows(tmp_path / 'x.csv', 100)
    folder = prepare_texts(tmp_path / 'x.csv', text_column='body')

    report = read_meta(folder, 'report.json')
    assert report['labels'] == {'train': {}, 'val': {}}
    assert report['columns']['mood'] == {'distinct': 3, 'missing': 0}
    assert report['lengths']['all texts'][3] == Split(folder, 'train').lengths.max()
    assert report['example']['text'] == decode(folder, 'train')[0]

    report['share_truncated'] = 0.25
    prepare.print_report(report)
    out = capsys.readouterr().out
    assert 'all texts                   90        10' in out
    assert 'goes with the label' not in out
    assert 'alone tells the label' not in out
    assert '25.0% of the training texts are longer than block_size, and go on in the next' in out
    assert f'(row {report["example"]["row"]}), uncut' in out


def test_the_command_prepares_a_txt(tmp_path):
    path = write_txt(tmp_path / 'texts.txt', TEXTS)
    settings = ('--labelled=False', '--text_column=', '--label_column=')
    result = run_prepare(tmp_path, path, *settings)
    assert result.last['rows'] == {'train': 54, 'val': 6}
    assert result.last['labels'] == {'train': {}, 'val': {}}
    assert result.err.startswith('preparing ')
    assert len(result.err.splitlines()) == 1

    run_prepare(tmp_path, tmp_path / 'nowhere.txt', *settings, status=2)


# -----------------------------------------------------------------------------
# blocks


def test_texts_become_blocks_with_an_end_between_them(tmp_path, prepare_texts):
    """nanoGPT's objective: all texts in a row, and a text that is longer than a block goes on."""
    folder = prepare_texts(write_txt(tmp_path / 'x.txt', TEXTS))
    meta = read_meta(folder)
    end_id = meta['tokenizer']['n_vocab'] - 1
    split = Split(folder, 'train', block_size=8, keep='last')
    assert split.lengths.min() > 1

    blocks = Blocks(split)

    tokens = np.concatenate([blocks[i] for i in range(len(blocks))])
    whole_texts = np.concatenate(list(Split(folder, 'train')))
    assert np.array_equal(tokens, whole_texts[: len(tokens)])
    assert len(whole_texts) - len(tokens) <= 1
    assert (tokens == end_id).sum() >= 53
    assert blocks.meta == meta


def test_blocks_are_trained_on_and_predicted(tmp_path, prepare_texts):
    """The batches of train.py and fast.predict take them for texts."""
    torch = pytest.importorskip('torch')
    from model import Config, Transformer
    from nanosentiment.fast import predict
    from train import get_batch

    folder = prepare_texts(write_txt(tmp_path / 'x.txt', TEXTS))
    blocks = Blocks(Split(folder, 'train', block_size=8, keep='last'))
    n_vocab = read_meta(folder)['tokenizer']['n_vocab']
    sizes = {'n_layer': 1, 'n_head': 2, 'n_embd': 8, 'block_size': 8, 'n_class': 2}
    model = Transformer(Config(vocab_size=n_vocab, **sizes)).eval()

    idx, lengths, targets = get_batch(blocks, np.arange(4), 'cpu')
    assert idx.tolist() == [blocks[i].tolist() for i in range(4)]
    assert targets.tolist() == [0] * 4
    with torch.no_grad():
        logits, _ = model(idx, lengths)
    predictions = predict(model, blocks, batch_size=3)
    assert predictions.shape == (len(blocks), 2)
    assert np.allclose(predictions[:4], logits.numpy(), atol=1e-5)
