"""Training on from one's own run: other data, other labels, a language model as first stage."""

import csv
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_weights, read_checkpoint, read_log, run, write_rows

from model import Transformer
from nanosentiment import Classifier
from nanosentiment.checkpoint import model_of_run, open_checkpoint
from nanosentiment.memmaps import Split

TEXTS = ['lovely, thanks, it was great', 'late and broken', 'a purple banana on the moon']
NO_LEARNING = ['--learning_rate=0', '--max_iters=1', '--warmup_iters=0']


def rows_with_labels(path, names):
    """The rows of write_rows with other labels, {old: new}, and with words of their own."""
    write_rows(path, 120, seed=3)
    with open(path, newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['mood', 'body'])
        writer.writerows([names[row['mood']], f'{row["body"]} zebra'] for row in rows)


def data_flags(path, tmp_path):
    columns = '--text_column=body --label_column=mood --block_size=32 --device=cpu --dtype=float32'
    return [f'--dataset={path}', f'--data_dir={tmp_path}/data', *columns.split()]


# -----------------------------------------------------------------------------
# a classifier


def test_a_run_with_the_same_labels_keeps_its_head_and_its_tokens(trained, run_here, tmp_path):
    """
    Trained on at a rate of 0 it is what it was. Its tokens were learned from its own texts; those
    of the new ones would give the embeddings another meaning.
    """
    path = tmp_path / 'rows.csv'
    rows_with_labels(path, {'good': 'good', 'bad': 'bad', 'odd': 'odd'})
    flags = [*data_flags(path, tmp_path), f'--out_dir={tmp_path}/on', '--batch_size=8']
    result = run_here('train.py', f'--init_from={trained.out_dir}', *flags, *NO_LEARNING)
    assert f'weights of {trained.out_dir}' in result.out
    assert 'starts fresh' not in result.out

    before = read_checkpoint(f'{trained.out_dir}/best.pt')
    after = read_checkpoint(tmp_path / 'on' / 'best.pt')
    assert_same_weights(f'{trained.out_dir}/best.pt', tmp_path / 'on' / 'best.pt')
    assert after['tokenizer'] == before['tokenizer']
    assert after['settings']['init_from'] == trained.out_dir

    # the data set is prepared with those tokens again when it is judged, and when it is resumed
    shutil.rmtree(tmp_path / 'data')
    judged = run_here('evaluate.py', f'--out_dir={tmp_path}/on', '--split=val', '--device=cpu')
    assert judged.last['n'] > 0
    shutil.rmtree(tmp_path / 'data')
    run_here('train.py', f'--out_dir={tmp_path}/on', '--init_from=resume', '--max_iters=2')


def test_new_labels_get_a_new_head(trained, run_here, tmp_path):
    path = tmp_path / 'rows.csv'
    rows_with_labels(path, {'good': 'happy', 'bad': 'angry', 'odd': 'angry'})
    flags = [*data_flags(path, tmp_path), f'--out_dir={tmp_path}/on', '--batch_size=8']
    result = run_here('train.py', f'--init_from={trained.out_dir}/best.pt', *flags, *NO_LEARNING)
    assert 'starts fresh: head' in result.out
    before = read_checkpoint(f'{trained.out_dir}/best.pt')['model']
    after = read_checkpoint(tmp_path / 'on' / 'best.pt')
    assert after['labels'] == ['angry', 'happy']
    for name, weight in after['model'].items():
        assert name.startswith('head.') or weight.equal(before[name]), name


def test_the_head_follows_the_order_of_the_labels(trained):
    """The rows of a head belong to labels by name, not by number."""
    best = read_checkpoint(f'{trained.out_dir}/best.pt')
    labels = best['labels'][::-1]
    model = model_of_run(trained.out_dir, best, 3, labels, {})
    assert model.loaded['notes'] == []
    assert model.head.weight.equal(best['model']['head.weight'].flip(0))
    assert model.head.bias.equal(best['model']['head.bias'].flip(0))


def test_fewer_positions_are_a_part_of_the_runs(trained):
    best = read_checkpoint(f'{trained.out_dir}/best.pt')
    model = model_of_run(trained.out_dir, best, 3, best['labels'], {'block_size': 10})
    assert model.wpe.weight.equal(best['model']['wpe.weight'][:10])
    assert model.loaded['notes'] == ['positions cropped from 32 to 10']


@pytest.mark.parametrize(
    'flag, words',
    [
        ('--n_embd=64', 'n_embd=64 cannot be set, because .* decides it'),
        ('--block_size=33', 'block_size 33 is more than the 32 positions'),
        ('--tokenizer=gpt2', 'tokenizer=gpt2, but the weights of .* know the tokens of bpe300'),
    ],
)
def test_what_the_run_decides_is_one_line(trained, run_here, tmp_path, flag, words):
    flags = [*data_flags(trained.args[0].partition('=')[2], tmp_path), flag]
    out_dir = f'--out_dir={tmp_path}/on'
    result = run_here('train.py', f'--init_from={trained.out_dir}', *flags, out_dir, status=2)
    (line,) = [line for line in result.err.splitlines() if not line.startswith('preparing')]
    assert re.search(words, line)


def test_texts_that_are_cleaned_in_another_way_are_mentioned(trained, run_here, tmp_path):
    """The run has never seen capitals if its texts were lower-cased, and the other way round."""
    path = trained.args[0].partition('=')[2]
    flags = [*data_flags(path, tmp_path), f'--out_dir={tmp_path}/on', *NO_LEARNING]
    result = run_here('train.py', f'--init_from={trained.out_dir}', '--lowercase=True', *flags)
    assert f'the texts of {trained.out_dir} were cleaned with lowercase=False' in result.out


def test_the_run_that_one_begins_from_is_not_written_over(trained, run_here, tmp_path):
    """The default out_dir is out/run, which people also give to --init_from."""
    shutil.copytree(trained.out_dir, tmp_path / 'run')
    flags = data_flags(trained.args[0].partition('=')[2], tmp_path)
    for source in (f'{tmp_path}/run', f'{tmp_path}/run/best.pt'):
        same = [f'--init_from={source}', f'--out_dir={tmp_path}/run/']
        result = run_here('train.py', *same, *flags, *NO_LEARNING, status=2)
        assert 'would be written over; name another --out_dir' in result.err
    assert_same_weights(f'{trained.out_dir}/best.pt', tmp_path / 'run' / 'best.pt')


def test_an_unset_block_size_is_that_of_the_run(trained, run_here, tmp_path):
    """The default of 256 tokens is nothing that the user wants, and no reason to refuse."""
    flags = data_flags(trained.args[0].partition('=')[2], tmp_path)
    flags.remove('--block_size=32')
    out_dir = f'--out_dir={tmp_path}/on'
    run_here('train.py', f'--init_from={trained.out_dir}', *flags, out_dir, *NO_LEARNING)
    best = read_checkpoint(tmp_path / 'on' / 'best.pt')
    assert (best['config']['block_size'], best['settings']['block_size']) == (32, 32)


def test_a_run_in_the_working_folder_does_not_matter(trained, run_here, tmp_path, monkeypatch):
    """Training from scratch has no source, and '' is not the folder in which one stands."""
    shutil.copy(f'{trained.out_dir}/best.pt', tmp_path)
    monkeypatch.chdir(tmp_path)
    run_here('train.py', *trained.args, f'--out_dir={tmp_path}/new', '--max_iters=2')


def test_a_head_that_now_reads_another_vector_is_mentioned(trained):
    """It is kept, because it is trained further, but it begins worse than it was."""
    best = read_checkpoint(f'{trained.out_dir}/best.pt')
    model = model_of_run(trained.out_dir, best, 3, best['labels'], {'pool': 'mean'})
    assert model.loaded['notes'] == ['pool=mean, but the head was trained with pool=last']


def test_the_checkpoint_of_another_program_is_named(run_here, tmp_path):
    """Readers of this project have nanoGPT's ckpt.pt."""
    torch.save({'model': {}, 'model_args': {}, 'iter_num': 3}, tmp_path / 'ckpt.pt')
    result = run_here('train.py', f'--init_from={tmp_path}/ckpt.pt', '--dataset=demo', status=2)
    assert 'no checkpoint of this project, such as one of nanoGPT; name the best.pt' in result.err


def test_a_damaged_run_is_one_line(run_here, tmp_path):
    (tmp_path / 'best.pt').write_bytes(b'no checkpoint')
    result = run_here('train.py', f'--init_from={tmp_path}', '--dataset=demo', status=2)
    assert 'best.pt cannot be opened' in result.err
    assert 'Traceback' not in result.err


# -----------------------------------------------------------------------------
# a language model


@pytest.fixture(scope='module')
def language_model(tmp_path_factory):
    """A run on texts without labels: its folder and what it printed."""
    folder = tmp_path_factory.mktemp('lm')
    write_rows(folder / 'rows.csv', 240)
    with open(folder / 'rows.csv', newline='', encoding='utf-8') as f:
        texts = [row['body'] for row in csv.DictReader(f)]
    (folder / 'texts.txt').write_text('\n'.join(texts))
    flags = (
        f'{TINY} --dataset={folder}/texts.txt --labelled=False --data_dir={folder}/data '
        f'--learning_rate=3e-3 --max_epochs=12 --dropout=0 --device=cpu --dtype=float32'
    ).split()
    result = run('train.py', *flags, f'--out_dir={folder}/run')
    return folder, flags, result


def test_a_language_model_learns_texts_without_labels(language_model):
    folder, _, result = language_model
    log = read_log(folder / 'run')
    losses = [line['val_loss'] for line in log if 'val_loss' in line]
    assert losses[-1] < losses[0] - 1
    assert result.last['test'] is None
    assert 'a language model; from scratch' in result.out
    assert f'python train.py --init_from={folder}/run' in result.out
    best = read_checkpoint(folder / 'run' / 'best.pt')
    assert best['labels'] == []
    assert not any(name.startswith('head.') for name in best['model'])
    expected = pytest.approx(np.exp(result.last['best']['val_loss']))
    assert result.last['best']['val_perplexity'] == expected


@torch.no_grad()
def test_its_validation_loss_is_that_of_nanogpt(language_model):
    """The mean over every token of every block of how well the tokens before it predict it."""
    folder, _, result = language_model
    model, _, best = open_checkpoint(str(folder / 'run'))
    (prepared,) = (folder / 'data' / 'texts').iterdir()
    tokens = Split(str(prepared), 'val').tokens.astype(np.int64)
    losses = []
    for start in range(0, len(tokens) - 1, 32):
        block = torch.from_numpy(tokens[start : start + 32])[None]
        x, _ = model.embed(block, torch.tensor([block.size(1)]))
        for layer in model.h:
            x = layer(x, None)
        logits = model.ln(x) @ model.wte.weight.T  # (1, T, vocab_size)
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], block[0, 1:])
        losses.append(loss.item())
    assert result.last['best']['val_loss'] == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_interrupted_language_model_goes_on_to_the_same_end(language_model, run_here, tmp_path):
    folder, flags, _ = language_model
    run_here('train.py', *flags, f'--out_dir={tmp_path}/run', '--max_epochs=6', '--decay_lr=none')
    resumed = ['--init_from=resume', '--max_epochs=12']
    run_here('train.py', f'--out_dir={tmp_path}/run', *resumed)
    run_here('train.py', *flags, f'--out_dir={tmp_path}/whole', '--decay_lr=none')
    assert_same_weights(tmp_path / 'run' / 'last.pt', tmp_path / 'whole' / 'last.pt')


def test_a_classifier_begins_with_its_weights(language_model, run_here, tmp_path):
    folder, _, _ = language_model
    flags = [*data_flags(folder / 'rows.csv', tmp_path), f'--out_dir={tmp_path}/run']
    training = '--pool=mean --learning_rate=3e-3 --max_epochs=12 --batch_size=8 --class_weight=sqrt'
    result = run_here('train.py', f'--init_from={folder}/run', *flags, *training.split())
    assert 'starts fresh: head' in result.out
    best = read_checkpoint(tmp_path / 'run' / 'best.pt')
    assert best['tokenizer'] == read_checkpoint(folder / 'run' / 'best.pt')['tokenizer']
    answers = Classifier(tmp_path / 'run', device='cpu')(TEXTS)
    assert [answer['label'] for answer in answers] == ['good', 'bad', 'odd']


@pytest.mark.parametrize('script', ['sample_classify.py', 'evaluate.py'])
def test_a_language_model_gives_no_labels(language_model, run_here, script):
    folder, _, _ = language_model
    result = run_here(script, f'--out_dir={folder}/run', status=2)
    assert 'is a language model, which knows no labels; train a classifier from it' in result.err


@pytest.mark.parametrize(
    'flag, words',
    [
        ('--causal=False', 'a language model .* must be causal'),
        ('--class_weight=balanced', 'class_weight needs labels'),
        ('--metric=val_accuracy', 'there is no metric but val_loss'),
        ('--folds=2', 'folds and seeds .* need labels'),
        ('--seeds=2', 'folds and seeds .* need labels'),
    ],
)
def test_what_needs_labels_is_refused_without_them(language_model, tmp_path, flag, words):
    _, flags, _ = language_model
    result = run('train.py', *flags, f'--out_dir={tmp_path}/run', flag, status=2)
    assert re.search(words, result.err)
    assert 'Traceback' not in result.err


def test_gpt2_may_learn_more_language_first(language_model, run_here, tmp_path):
    """A checkpoint without its head, trained on with the objective of its authors."""
    transformers = pytest.importorskip('transformers')
    folder, _, _ = language_model
    best = read_checkpoint(folder / 'run' / 'best.pt')
    config = transformers.GPT2Config(
        vocab_size=best['config']['vocab_size'], n_positions=32, n_embd=16, n_layer=2, n_head=2
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config)
    theirs.save_pretrained(tmp_path)
    model = Transformer.from_pretrained(str(tmp_path), 0).eval()
    assert model.loaded['fresh'] == []

    idx = torch.randint(0, 200, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, losses = model(idx, torch.tensor([20, 20]))
        expected = theirs.eval()(input_ids=idx, labels=idx).loss
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-5)


# -----------------------------------------------------------------------------
# what is in the file


def test_the_weights_are_plain_tensors(trained, tmp_path):
    """Others read them without our code: names and tensors that share no memory."""
    safetensors = pytest.importorskip('safetensors.torch')
    state = read_checkpoint(f'{trained.out_dir}/best.pt')['model']
    safetensors.save_file(state, tmp_path / 'model.safetensors')
    again = safetensors.load_file(tmp_path / 'model.safetensors')
    assert state.keys() == again.keys()
    assert all(state[name].equal(again[name]) for name in state)
