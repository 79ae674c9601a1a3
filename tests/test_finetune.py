"""From a pretrained checkpoint to a run, by the commands that a user types."""

import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, SLOW, read_checkpoint, run, start, write_rows

import prepare
import train
from configurator import configure
from nanosentiment import Classifier
from nanosentiment.files import read_sealed_json

transformers = pytest.importorskip('transformers')

WORDS = (
    'lovely great thanks broken late awful banana purple moon '
    'the parcel came on a day and it was in this box for you me'
)
FLAGS = (
    '--text_column=body --label_column=mood --block_size=30 --device=cpu --dtype=float32 '
    '--batch_size=8 --learning_rate=2e-3 --warmup_iters=5 --dropout=0 --log_interval=1000 '
    # random weights leave too little at the first token to learn from
    '--pool=mean --max_epochs=12'
)
TUNING = (
    '--freeze=1 --layer_decay=0.9 --head_lr=1e-2 --decay_lr=linear '
    '--head_dropout=0.1 --token_dropout=0.1'
)


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    """A folder with a tiny BERT, a tokenizer.json, as a hub has them, and rows to train on."""
    folder = tmp_path_factory.mktemp('hub')
    words = dict.fromkeys(WORDS.split())
    tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]
    vocab = {token: i for i, token in enumerate(tokens)}
    transformers.BertTokenizerFast(vocab=vocab).save_pretrained(folder / 'bert')

    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.2,  # embeddings as far apart as those of a trained model
    )
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(folder / 'bert')
    write_rows(folder / 'rows.csv', 300)
    return folder


@pytest.fixture(scope='module')
def bert_weights(hub):
    """{name: tensor} of the checkpoint."""
    return transformers.BertForMaskedLM.from_pretrained(hub / 'bert').state_dict()


@pytest.fixture(scope='module')
def tuned(hub, tmp_path_factory):
    """One finished run: .out_dir, .result, and .args, which leave out_dir and TUNING open."""
    out_dir = tmp_path_factory.mktemp('tuned')
    data = [f'--dataset={hub}/rows.csv', f'--data_dir={hub}/data']
    args = [f'--init_from={hub}/bert', *data, *FLAGS.split()]
    result = run('train.py', *args, *TUNING.split(), f'--out_dir={out_dir}')
    return SimpleNamespace(out_dir=out_dir, result=result, args=args)


def feed_forward(layer):
    """The name of the same matrix in their checkpoint and in ours."""
    theirs = f'bert.encoder.layer.{layer}.intermediate.dense.weight'
    return theirs, f'h.{layer}.mlp.c_fc.weight'


# -----------------------------------------------------------------------------
# what is trained


def test_a_checkpoint_becomes_a_classifier(tuned):
    assert tuned.result.last['test']['accuracy'] > 0.7
    assert tuned.result.last['tokenizer'] == 'bert'
    assert read_sealed_json(tuned.out_dir / 'summary.json', '') == tuned.result.last


def test_it_is_said_what_starts_fresh_and_what_is_frozen(hub, tuned, bert_weights):
    out = tuned.result.out
    assert f'weights of {hub}/bert' in out
    assert 'starts fresh: pooler, head' in out
    assert 'cls.predictions' in out  # which is not used
    assert 'positions cropped from 40 to 30' in out
    assert 'frozen: embeddings, 1 layers' in out

    n_frozen = -10 * 32  # of the positions that were cropped
    for name, weight in bert_weights.items():
        if name.startswith(('bert.embeddings', 'bert.encoder.layer.0.')):
            n_frozen += weight.numel()
    model = read_checkpoint(tuned.out_dir / 'best.pt')['model']
    n_params = sum(weight.numel() for weight in model.values())
    assert f'{n_params:,} parameters, {n_params - n_frozen:,} to train' in out


def test_what_is_frozen_stays_to_the_last_bit(tuned, bert_weights):
    model = read_checkpoint(tuned.out_dir / 'best.pt')['model']
    theirs, ours = feed_forward(0)
    assert torch.equal(model[ours], bert_weights[theirs])
    assert torch.equal(model['wte.weight'], bert_weights['bert.embeddings.word_embeddings.weight'])
    for layer in (1, 2):
        theirs, ours = feed_forward(layer)
        assert not torch.equal(model[ours], bert_weights[theirs])


def test_the_head_may_learn_alone_first(tuned, bert_weights, run_here, tmp_path):
    """The first epoch leaves what was pretrained as it was, and computes no gradient of it."""
    flags = ['--head_epochs=1', '--weight_decay=0.1', f'--out_dir={tmp_path}']
    run_here('train.py', *tuned.args, *flags, '--max_epochs=1')
    last = read_checkpoint(tmp_path / 'last.pt')
    theirs, ours = feed_forward(0)
    word_embeddings = bert_weights['bert.embeddings.word_embeddings.weight']
    assert torch.equal(last['model'][ours], bert_weights[theirs])
    assert torch.equal(last['model']['wte.weight'], word_embeddings)
    assert last['model']['head.bias'].abs().max() > 0  # it starts at 0
    assert len(last['optimizer']['state']) == 4  # two matrices and their biases

    # then all layers learn, also in a run that is resumed
    run_here('train.py', f'--out_dir={tmp_path}', '--init_from=resume', '--max_epochs=2')
    model = read_checkpoint(tmp_path / 'last.pt')['model']
    assert not torch.equal(model[ours], bert_weights[theirs])


def test_the_layers_join_the_head_without_an_evaluation(tuned, bert_weights, run_here, tmp_path):
    flags = ['--head_epochs=1', '--max_epochs=2', '--eval_interval=1000000']
    run_here('train.py', *tuned.args, *flags, f'--out_dir={tmp_path}')
    model = read_checkpoint(tmp_path / 'last.pt')['model']
    theirs, ours = feed_forward(0)
    assert not torch.equal(model[ours], bert_weights[theirs])


def test_a_vocabulary_of_many_languages_is_trained_and_used(hub, run_here, tmp_path):
    """
    Multilingual BERT has 119,547 tokens, and 16 bits hold 65,536: the ids must not wrap around.
    Here every word has an id that would.
    """
    tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    tokens += [f'[unused{i}]' for i in range(66_000)]
    tokens += dict.fromkeys(WORDS.split())
    folder = tmp_path / 'multilingual'
    vocab = {token: i for i, token in enumerate(tokens)}
    transformers.BertTokenizerFast(vocab=vocab).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)

    data = [f'--dataset={hub}/rows.csv', f'--data_dir={tmp_path}/data']
    args = [*data, f'--init_from={folder}', *FLAGS.split(), f'--out_dir={tmp_path}/run']
    run_here('train.py', *args, '--max_epochs=3')
    (path,) = (tmp_path / 'data').rglob('train.tok')
    ids = np.fromfile(path, dtype=np.uint32)
    assert ids.max() == len(tokens) - 1
    assert (ids > 66_000).mean() > 0.8

    (answer,) = Classifier(tmp_path / 'run', device='cpu')(['lovely great thanks'])
    assert answer['label'] == 'good'


# -----------------------------------------------------------------------------
# later


def test_the_run_does_not_need_the_checkpoint_any_more(hub, tuned, run_here, tmp_path):
    """best.pt holds the tokenizer, too: on a machine without the folder it answers the same."""
    flags = ['--json=True', '--device=cpu', '--text=it was awful and late']
    before = run_here('sample_classify.py', f'--out_dir={tuned.out_dir}', *flags).last
    shutil.copy(tuned.out_dir / 'best.pt', tmp_path)
    hidden = hub / 'bert.away'
    os.rename(hub / 'bert', hidden)
    try:
        after = run_here('sample_classify.py', f'--out_dir={tmp_path}', *flags).last
    finally:
        os.rename(hidden, hub / 'bert')
    assert after == before


@pytest.mark.stress
def test_a_stopped_fine_tuning_goes_on_to_the_same_end(tuned, run_here, tmp_path):
    """The frozen layers, the rates of the layers and the tokenizer come back with it."""
    process = start('train.py', *tuned.args, *TUNING.split(), f'--out_dir={tmp_path}')
    while process.poll() is None and not (tmp_path / 'best.pt').exists():
        time.sleep(0.01)
    process.terminate()  # it finishes its step, and saves
    assert process.wait(timeout=60 * SLOW) == 128 + signal.SIGTERM
    stopped_iter = read_checkpoint(tmp_path / 'last.pt')['run']['iter']
    whole = read_checkpoint(tuned.out_dir / 'last.pt')
    assert stopped_iter < whole['run']['iter'], 'it ended before it could be stopped'

    run_here('train.py', f'--out_dir={tmp_path}', '--init_from=resume')

    model = read_checkpoint(tmp_path / 'last.pt')['model']
    for name, weight in whole['model'].items():
        assert torch.equal(model[name], weight), name


# -----------------------------------------------------------------------------
# mistakes


@pytest.mark.parametrize(
    'flag, words',
    [
        ('--n_layer=2', 'n_layer'),
        ('--lm_weight=0.5', 'lm_weight'),
        ('--block_size=64', 'block_size 64 is more than the 40 positions'),
        ('--freeze=4', '3 layers'),
        # its tokens would fit into the embeddings of the checkpoint, which mean other words
        ('--tokenizer=bpe300', '--tokenizer=auto'),
        ('--pool=middle', 'auto, last, first, mean'),
    ],
)
def test_what_a_checkpoint_does_not_allow_is_one_line(tuned, run_here, tmp_path, flag, words):
    err = run_here('train.py', *tuned.args, flag, f'--out_dir={tmp_path}', status=2).err
    lines = [line for line in err.splitlines() if not line.startswith('preparing')]
    assert len(lines) == 1, err
    assert words in lines[0]


@pytest.mark.parametrize(
    'name', ['gpt2', 'gpt2_sst2', 'bert_sst2', 'distilbert_sst2', 'roberta_sst2']
)
def test_without_a_hub_the_way_out_is_named(name, run_here, tmp_path, monkeypatch):
    """Before any data is prepared: the setting, a folder, and what needs a package index only."""
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setenv('HF_HOME', str(tmp_path))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    flags = ['--block_size=256', f'--out_dir={tmp_path}/out']
    result = run_here('train.py', f'{ROOT}/config/finetune_{name}.py', *flags, status=2)
    lines = [line for line in result.err.splitlines() if not line.startswith('downloading')]
    assert len(lines) == 1, result.err
    for words in ('HF_ENDPOINT', '--init_from=<folder>', 'config/finetune_minilm.py'):
        assert words in lines[0]
    assert result.out == ''
    assert not os.path.exists(tmp_path / 'out')


# -----------------------------------------------------------------------------
# configs

CONFIGS = sorted(name for name in os.listdir(f'{ROOT}/config') if name.endswith('.py'))


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_says_what_it_costs(name):
    """Its command, its minutes and the score to expect; and train.py knows all its settings."""
    path = f'{ROOT}/config/{name}'
    with open(path, encoding='utf-8') as f:
        head, _, _ = f.read().partition('\n\n')
    assert f'python train.py config/{name}' in head
    assert 'xpect' in head
    assert 'minute' in head or 'hour' in head

    config = configure(dict(vars(train)), prepare, argv=[path])
    train.check_settings(config, world_size=1)
