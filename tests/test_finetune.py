# python -m pytest tests/test_finetune.py
# from a checkpoint of another's making to a run of ours, by the commands that a user types

import json
import os
import random
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, run, write_rows

transformers = pytest.importorskip('transformers')

WORDS = 'lovely great thanks broken late awful banana purple moon the parcel came on a day and it was in this box for you me'
FLAGS = '--text_column=body --label_column=mood --max_epochs=6 --batch_size=8 --learning_rate=5e-3 --warmup_iters=5 --dropout=0'


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    """A tiny BERT of theirs in hub layout, with a tokenizer.json, and rows to train on."""
    folder = tmp_path_factory.mktemp('hub')
    tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *dict.fromkeys(WORDS.split())]
    transformers.BertTokenizerFast(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(folder / 'bert')
    sizes = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, max_position_embeddings=40)
    sizes |= dict(initializer_range=0.2)  # as far apart as those of a trained model
    config = transformers.BertConfig(vocab_size=len(tokens), **sizes)
    torch.manual_seed(0)
    transformers.BertForMaskedLM(config).save_pretrained(folder / 'bert')
    random.seed(0)
    write_rows(folder / 'rows.csv', 300)
    return folder


@pytest.fixture(scope='module')
def tuned(hub, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp('tuned')
    args = [f'--dataset={hub}/rows.csv', f'--data_dir={hub}/data', *FLAGS.split(), '--block_size=30', '--log_interval=1000']
    args += ['--max_epochs=12', '--pool=mean']  # what random weights leave at the first token is too little to learn from
    more = ['--freeze=1', '--reinit=1', '--layer_decay=0.9', '--head_lr=5e-3', '--decay_lr=linear', '--head_dropout=0.1']
    more += ['--token_dropout=0.1']
    result = run('train.py', f'--init_from={hub}/bert', f'--out_dir={out_dir}', *args, *more)
    return SimpleNamespace(out_dir=out_dir, result=result, args=args)


def test_a_checkpoint_becomes_a_classifier(hub, tuned):
    """What starts fresh, what is frozen and what trains is said; what is frozen is to the last bit what it was."""
    said = tuned.result.out
    assert f'weights of {hub}/bert' in said and 'starts fresh: pooler, head' in said and 'cls.predictions' in said
    assert 'positions cropped from 40 to 30' in said and 'frozen: embeddings, 1 layers' in said
    assert 'the top 1 layers start fresh' in said
    saved = torch.load(tuned.out_dir / 'best.pt', weights_only=True)
    theirs = transformers.BertForMaskedLM.from_pretrained(hub / 'bert').state_dict()
    layer = 'bert.encoder.layer.{}.intermediate.dense.weight'.format
    assert torch.equal(saved['model']['wte.weight'], theirs['bert.embeddings.word_embeddings.weight'])
    assert torch.equal(saved['model']['h.0.mlp.c_fc.weight'], theirs[layer(0)])
    assert not torch.equal(saved['model']['h.1.mlp.c_fc.weight'], theirs[layer(1)])
    near, far = (torch.dist(saved['model'][f'h.{i}.mlp.c_fc.weight'], theirs[layer(i)]) for i in (1, 2))
    assert far > 2 * near, 'the reinitialised layer is another one, the one below it only moved'
    frozen = sum(theirs[key].numel() for key in theirs if key.startswith(('bert.embeddings', 'bert.encoder.layer.0.')))
    cropped = 10 * 32
    total = sum(x.numel() for x in saved['model'].values())
    assert f'{total:,} parameters, {total - frozen + cropped:,} to train' in said
    assert tuned.result.last['test']['accuracy'] > 0.7 and tuned.result.last['tokenizer'] == 'bert'


def test_the_head_may_learn_alone_first(hub, tuned, tmp_path):
    """With head_epochs=1 the first epoch leaves what was pretrained as it came, to the last bit, and computes no gradient."""
    args = [*tuned.args, '--max_epochs=1', '--head_epochs=1', '--weight_decay=0.1']
    run('train.py', f'--init_from={hub}/bert', f'--out_dir={tmp_path}', *args)
    theirs = transformers.BertForMaskedLM.from_pretrained(hub / 'bert').state_dict()
    layer = theirs['bert.encoder.layer.0.intermediate.dense.weight']
    last = torch.load(tmp_path / 'last.pt', weights_only=True)
    first = last['model']
    assert sum(len(optimizer['state']) for optimizer in last['optimizers']) == 4, 'two matrices and their biases'
    assert torch.equal(first['h.0.mlp.c_fc.weight'], layer)
    assert torch.equal(first['wte.weight'], theirs['bert.embeddings.word_embeddings.weight'])
    run('train.py', f'--out_dir={tmp_path}', '--init_from=resume', '--max_epochs=2')
    second = torch.load(tmp_path / 'last.pt', weights_only=True)['model']
    assert not torch.equal(second['h.0.mlp.c_fc.weight'], layer)
    assert first['head.bias'].abs().max() > 0, 'it starts at 0'
    args = [*tuned.args, '--max_epochs=2', '--head_epochs=1', '--eval_interval=1000000']
    run('train.py', f'--init_from={hub}/bert', f'--out_dir={tmp_path}/run', *args)
    third = torch.load(tmp_path / 'run/last.pt', weights_only=True)['model']
    assert not torch.equal(third['h.0.mlp.c_fc.weight'], layer), 'the layers join whether or not it is time to evaluate'


def test_the_run_needs_the_checkpoint_no_more(hub, tuned, tmp_path):
    """best.pt holds the tokenizer too: moved to a machine without the folder, it answers the same."""
    text = '--text=it was awful and late'
    before = run('sample_classify.py', f'--out_dir={tuned.out_dir}', '--json=True', text).last
    shutil.copy(tuned.out_dir / 'best.pt', tmp_path)
    away = hub / 'bert.away'
    os.rename(hub / 'bert', away)
    try:
        assert run('sample_classify.py', f'--out_dir={tmp_path}', '--json=True', text, cwd=tmp_path).last == before
    finally:
        os.rename(away, hub / 'bert')


def test_a_run_from_a_checkpoint_resumes(hub, tuned, tmp_path):
    """The frozen layers, the rates of the layers and the tokenizer come back with it: the same weights to the last bit."""
    out, more = tmp_path / 'run', ['--freeze=1', '--reinit=1', '--layer_decay=0.9', '--head_lr=5e-3', '--decay_lr=linear']
    command = [sys.executable, f'{ROOT}/train.py', f'--init_from={hub}/bert', f'--out_dir={out}', *tuned.args, *more]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    process = subprocess.Popen([*command, '--head_dropout=0.1', '--token_dropout=0.1'], env=env, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / 'best.pt').exists():
        time.sleep(0.01)
    process.terminate()  # it finishes its step, and saves
    assert process.wait() == 0
    whole = torch.load(tuned.out_dir / 'last.pt', weights_only=True)
    stopped = torch.load(out / 'last.pt', weights_only=True)['run']['iter']
    assert stopped < whole['run']['iter'], 'it was too fast to be stopped'
    run('train.py', f'--out_dir={out}', '--init_from=resume')
    ours, whole = torch.load(out / 'last.pt', weights_only=True)['model'], whole['model']
    assert all(torch.equal(ours[key], whole[key]) for key in whole)


@pytest.mark.parametrize(
    'flag, words',
    [
        ('--n_layer=2', 'n_layer'),
        ('--lm_weight=0.5', 'lm_weight'),
        ('--block_size=64', 'block_size 64 is more than the 40 positions'),
        ('--freeze=4', '3 layers'),
        ('--reinit=4', '3 layers'),
        ('--reinit=2 --freeze=2', 'less those of freeze'),  # layers of chance, never to learn
        ('--tokenizer=bpe300', '--tokenizer=auto'),  # of fewer tokens than embeddings it trained, on words that meant others
        ('--pool=middle', 'auto last first mean'),
    ],
)
def test_what_cannot_be_meant_is_one_line(hub, tuned, flag, words, tmp_path):
    done = run('train.py', f'--init_from={hub}/bert', f'--out_dir={tmp_path}', *tuned.args, *flag.split(), status=2)
    lines = [line for line in done.err.splitlines() if not line.startswith('preparing')]
    assert len(lines) == 1 and words in lines[0], done.err


@pytest.mark.parametrize('name', ['gpt2', 'gpt2_sst2', 'bert_sst2', 'distilbert_sst2', 'roberta_sst2'])
def test_without_a_hub_the_way_out_is_named(name, tmp_path):
    """At once, before any data is prepared: the setting, a folder, and what works with a package index alone."""
    env = {'HF_ENDPOINT': 'http://127.0.0.1:9', 'HF_HOME': str(tmp_path), 'XDG_CACHE_HOME': str(tmp_path)}
    done = run('train.py', f'config/finetune_{name}.py', '--block_size=256', f'--out_dir={tmp_path}/out', env=env, status=2)
    (line,) = (line for line in done.err.splitlines() if not line.startswith('downloading'))
    assert all(words in line for words in ('HF_ENDPOINT', '--init_from=<folder>', 'config/finetune_minilm.py'))
    assert not done.out and not os.path.exists(tmp_path / 'out')


def test_every_config_says_what_it_costs():
    """Its command, its minutes and the score to expect stand in its first lines, and it sets only what train.py has."""
    for name in os.listdir(os.path.join(ROOT, 'config')):
        if name.endswith('.py'):
            with open(os.path.join(ROOT, 'config', name), encoding='utf-8') as f:
                head = f.read().partition('\n\n')[0]
            assert f'python train.py config/{name}' in head and 'xpect' in head, name
            assert any(word in head for word in ('minute', 'hour')), name
            run('train.py', f'config/{name}', '--help')


def test_the_summary_is_kept(tuned):
    """results/ is made of these."""
    assert json.loads((tuned.out_dir / 'summary.json').read_text()) == tuned.result.last
