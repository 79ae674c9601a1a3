"""best.pt and last.pt: how they are written, what they hold, and the Classifier that uses them."""

import errno
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_same_weights, read_checkpoint, read_log, run

from nanosentiment import checkpoint
from nanosentiment.checkpoint import Classifier, open_checkpoint, save_checkpoint
from nanosentiment.cleaning import clean
from nanosentiment.device import choose_device
from nanosentiment.memmaps import windows

# -----------------------------------------------------------------------------
# contents


def test_a_checkpoint_says_where_it_comes_from(trained):
    best = read_checkpoint(f'{trained.out_dir}/best.pt')
    expected = {
        *('model', 'config', 'settings', 'labels', 'dataset', 'tokenizer', 'recipe', 'command'),
        *('metrics', 'best', 'temperature', 'versions', 'git'),
    }
    assert set(best) == expected
    assert best['labels'] == ['bad', 'good', 'odd']
    assert best['dataset'] == 'rows'
    assert best['versions']['torch'] == str(torch.__version__)
    # the settings of train.py and those of prepare.py
    assert best['settings']['learning_rate'] == 3e-3
    assert best['settings']['block_size'] == 32


@pytest.fixture
def not_asked_yet():
    """git_commit remembers its first answer, for the test and for those after it."""
    checkpoint.git_commit.cache_clear()
    yield
    checkpoint.git_commit.cache_clear()


def test_git_is_not_needed(tmp_path, monkeypatch, not_asked_yet):
    """Where the project came as an archive, to a machine without git, no commit is noted."""
    monkeypatch.setenv('PATH', str(tmp_path))
    assert checkpoint.git_commit() == ''


def test_a_project_outside_git_has_no_commit(tmp_path, monkeypatch, not_asked_yet):
    monkeypatch.setattr(checkpoint, 'ROOT', str(tmp_path))
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert checkpoint.git_commit() == ''


# -----------------------------------------------------------------------------
# writing


def fill_disk(monkeypatch):
    """From here on no file can be written to its end."""

    def fail(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', fail)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = str(tmp_path / 'last.pt')
    save_checkpoint(path, {'iter': 1})
    fill_disk(monkeypatch)
    with pytest.raises(ValueError, match=r'last\.pt cannot be written \(No space left on device\)'):
        save_checkpoint(path, {'iter': 2, 'weights': torch.zeros(100_000)})
    assert read_checkpoint(path)['iter'] == 1
    assert os.listdir(tmp_path) == ['last.pt']


@pytest.mark.parametrize('is_resumed', [True, False])
def test_a_run_that_cannot_begin_leaves_an_older_one_as_it_is(
    trained, run_here, tmp_path, monkeypatch, is_resumed
):
    """Neither its checkpoint nor its log is lost when the disk turns out to be full."""
    shutil.copytree(trained.out_dir, tmp_path / 'run')
    fill_disk(monkeypatch)
    args = ['--init_from=resume', '--max_epochs=7'] if is_resumed else trained.args
    err = run_here('train.py', *args, f'--out_dir={tmp_path}/run', status=2).err
    assert 'No space left on device' in err
    assert len([line for line in err.splitlines() if not line.startswith('preparing')]) == 1
    assert read_log(tmp_path / 'run') == read_log(trained.out_dir)
    assert_same_weights(tmp_path / 'run/last.pt', f'{trained.out_dir}/last.pt')


@pytest.mark.skipif(
    not os.path.exists('/proc/self/fd'), reason='/proc, which lists open files, is of Linux'
)
def test_no_file_is_renamed_while_it_is_open(trained, run_here, tmp_path, monkeypatch):
    """Windows forbids it, and a training there would end before its first step."""
    real_replace = os.replace
    renamed = []

    def replace(old, new):
        open_files = set()
        for fd in os.listdir('/proc/self/fd'):
            link = f'/proc/self/fd/{fd}'
            if os.path.islink(link):
                open_files.add(os.readlink(link))
        for path in (old, new):
            assert os.path.realpath(path) not in open_files, f'{path} is open'
        renamed.append(os.path.basename(new))
        real_replace(old, new)

    monkeypatch.setattr(os, 'replace', replace)
    monkeypatch.setattr(os, 'rename', replace)
    flags = [f'--out_dir={tmp_path}/run', f'--data_dir={tmp_path}/data']
    run_here('train.py', *trained.args, *flags, '--max_epochs=1', '--eval_interval=20')
    run_here('train.py', *flags, '--init_from=resume', '--max_epochs=2')

    assert {'last.pt', 'best.pt', 'metrics.jsonl', 'evaluation.json'} <= set(renamed)
    evaluated = [line['iter'] for line in read_log(tmp_path / 'run') if 'val_loss' in line]
    assert evaluated == [20, 27, 40, 54]  # at intervals, and at the end of each of the two


# -----------------------------------------------------------------------------
# reading


def test_a_damaged_or_missing_checkpoint_is_one_sentence(trained, tmp_path):
    with pytest.raises(ValueError, match='holds no best.pt; name the folder of a run'):
        open_checkpoint(str(tmp_path))

    with open(f'{trained.out_dir}/best.pt', 'rb') as f:
        half = f.read(10_000)
    (tmp_path / 'best.pt').write_bytes(half)
    with pytest.raises(ValueError, match='best.pt cannot be opened') as error:
        open_checkpoint(str(tmp_path))
    assert '\n' not in str(error.value)


def test_answers_that_are_not_finite_are_an_error(trained, tmp_path):
    """They were printed as NaN, which is no JSON, and counted as the first label."""
    best = read_checkpoint(f'{trained.out_dir}/best.pt')
    best['model']['head.weight'].fill_(3e38)
    torch.save(best, tmp_path / 'best.pt')
    with pytest.raises(ValueError, match=f'{tmp_path} answers with numbers that are not finite'):
        Classifier(tmp_path, device='cpu')(['late and broken'])


def test_loading_a_checkpoint_runs_no_code(tmp_path):
    """A pickle may call any function, and a checkpoint may come from anybody."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'was_here'),)

    torch.save({'config': Evil()}, tmp_path / 'best.pt')
    with pytest.raises(ValueError, match='cannot be opened'):
        open_checkpoint(str(tmp_path))
    assert not os.path.exists(tmp_path / 'was_here')


# -----------------------------------------------------------------------------
# Classifier

TEXTS = ['The parcel was lovely, thanks!', 'late and (broken)', '<b>a purple moon</b>']


@pytest.fixture(scope='module')
def classifier(trained):
    return Classifier(trained.out_dir, device='cpu')


@torch.no_grad()
def test_a_classifier_does_what_the_model_does(trained, classifier):
    """Clean, encode, forward, divide by the temperature, softmax: the plain way gives the same."""
    model, tokenizer, best = open_checkpoint(f'{trained.out_dir}/best.pt')
    answers = classifier.classify(TEXTS)
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = tokenizer.encode(clean(text, best['recipe']))
        logits, _ = model(torch.tensor([ids]), torch.tensor([len(ids)]))
        probabilities = torch.softmax(logits[0].double() / best['temperature'], dim=0)
        ranking = probabilities.argsort(descending=True).tolist()
        assert answer['label'] == best['labels'][ranking[0]]
        assert answer['runner_up'] == best['labels'][ranking[1]]
        assert answer['probability'] == pytest.approx(probabilities.max().item(), abs=1e-4)
        assert list(answer['probabilities']) == best['labels']
        rounded = list(answer['probabilities'].values())
        assert rounded == pytest.approx(probabilities.tolist(), abs=1e-4)
        assert answer['truncated'] is False
    assert [answer['label'] for answer in answers] == ['good', 'bad', 'odd']


def test_a_classifier_is_called_with_a_list_of_texts(classifier):
    """As in a notebook. The letters of a text would be classified one by one."""
    assert classifier(TEXTS) == classifier.classify(TEXTS)
    assert classifier(TEXTS, threshold=1.0) == classifier.classify(TEXTS, threshold=1.0)
    with pytest.raises(AssertionError, match='give a list of texts'):
        classifier('late and broken')


@pytest.mark.parametrize('reads_windows', [False, True])
def test_no_texts_have_no_answers(trained, reads_windows):
    assert Classifier(trained.out_dir, device='cpu', windows=reads_windows)([]) == []


def test_below_the_threshold_a_label_is_uncertain(classifier):
    (answer,) = classifier.classify(['box'])
    probability = answer['probability']
    assert 1 / 3 < probability <= 1
    (sure,) = classifier.classify(['box'], threshold=probability)
    assert sure == answer
    (unsure,) = classifier.classify(['box'], threshold=probability + 1e-4)
    assert unsure == answer | {'label': 'uncertain'}


def test_a_long_text_is_cut_as_in_training(classifier):
    """keep=last: the end of the text decides, and the answer says that it was cut."""
    text = 'broken late awful ' * 30 + 'lovely great thanks ' * 12
    (ids,) = classifier.encode([text])
    cut = classifier.truncate(np.array(ids))
    assert len(ids) > len(cut) == classifier.block_size == 32
    assert cut.tolist() == ids[-32:]
    (answer,) = classifier.classify([text])
    assert answer['truncated'] is True
    assert answer['label'] == 'good'


FILLER = 'the parcel came on a day and it was in this box for you and me '
LONG_TEXT = 'lovely great thanks ' * 20 + FILLER * 3


@torch.no_grad()
def test_with_windows_the_logits_are_the_mean_over_all_of_a_text(trained):
    model, tokenizer, best = open_checkpoint(f'{trained.out_dir}/best.pt')
    ids = tokenizer.encode(clean(LONG_TEXT, best['recipe']))
    logits = []
    for part in windows(ids, 32, tokenizer.n_prefix, tokenizer.n_suffix):
        logits_of_part, _ = model(torch.tensor(part)[None], torch.tensor([32]))
        logits.append(logits_of_part[0].double())
    probabilities = torch.softmax(torch.stack(logits).mean(dim=0) / best['temperature'], dim=0)

    classifier = Classifier(trained.out_dir, device='cpu', windows=True)
    # between other texts, so that a window could be counted for the wrong one
    _, answer, _ = classifier(['late', LONG_TEXT, FILLER * 6])

    assert len(logits) > 3
    rounded = list(answer['probabilities'].values())
    assert rounded == pytest.approx(probabilities.tolist(), abs=1e-4)
    assert answer['truncated'] is False


def test_windows_hear_what_a_cut_leaves_out(trained, classifier):
    """The words that tell the label stand where training would have cut."""
    with_windows = Classifier(trained.out_dir, device='cpu', windows=True)
    (cut,) = classifier([LONG_TEXT])
    (whole,) = with_windows([LONG_TEXT])
    assert cut['truncated'] is True
    assert whole['label'] == 'good'
    assert whole['probabilities']['good'] > cut['probabilities']['good'] + 0.1


def test_windows_change_nothing_for_short_texts(trained, classifier):
    with_windows = Classifier(trained.out_dir, device='cpu', windows=True)
    assert with_windows(TEXTS) == classifier(TEXTS)


def test_a_checkpoint_of_an_older_version_still_classifies(trained, tmp_path, classifier):
    """Recipes of format 2 had the labels' names under another key, and nothing about the table."""
    best = read_checkpoint(f'{trained.out_dir}/best.pt')
    recipe = best['recipe']
    new_keys = ('label_names', 'table', 'kinds', 'split_column')
    best['recipe'] = {key: value for key, value in recipe.items() if key not in new_keys}
    best['recipe'] |= {'format': 2, 'names': {}}
    torch.save(best, tmp_path / 'best.pt')
    assert Classifier(str(tmp_path), device='cpu')(TEXTS) == classifier(TEXTS)


def test_the_package_gives_its_classifier_to_a_star_import():
    """People type this in notebooks."""
    run(['-c', 'from nanosentiment import *; Classifier'], cwd=ROOT)


def test_a_few_lines_of_python_are_enough(trained, tmp_path):
    """As the README has it, in a process that has imported nothing else, in any folder."""
    code = f"""
import sys
sys.path.insert(0, {ROOT!r})
from nanosentiment import Classifier
model = Classifier({trained.out_dir!r}, device='cpu')
print(model.labels)
print(model.logits(['lovely, thanks', 'late and broken']).shape)
import json
for answer in model(['lovely, thanks', 'late and broken']):
    print(json.dumps(answer))
"""
    lines = run(['-c', code], cwd=tmp_path).out.splitlines()
    assert lines[:2] == ["['bad', 'good', 'odd']", '(2, 3)']

    # the same as the command prints
    flags = ['--json=True', f'--out_dir={trained.out_dir}', '--device=cpu']
    command = run(
        'sample_classify.py', *flags, stdin=None, input='lovely, thanks\nlate and broken\n'
    )
    assert lines[2:] == command.out.splitlines()


def test_logits_are_what_the_probabilities_are_made_of(classifier):
    logits = classifier.logits(TEXTS)
    assert logits.shape == (3, 3) and logits.dtype == np.float32
    expected = [list(answer['probabilities'].values()) for answer in classifier(TEXTS)]
    assert classifier.probabilities(logits) == pytest.approx(np.array(expected), abs=1e-4)


def test_the_package_loads_no_torch_before_it_is_needed():
    """A mistyped flag of sample_classify.py should not wait two seconds for its answer."""
    code = (
        'import sys, nanosentiment; assert "torch" not in sys.modules; '
        'from nanosentiment import Classifier; assert "torch" in sys.modules'
    )
    run(['-c', code], cwd=ROOT)


def test_opening_a_run_draws_no_weights_and_imports_no_compiler(trained):
    """Each takes over a second, several times as long as reading the weights and one text do."""
    code = (
        'import sys, torch; from nanosentiment import Classifier; before = torch.get_rng_state(); '
        f'Classifier({trained.out_dir!r}, device="cpu")(["lovely"]); '
        'assert torch.equal(torch.get_rng_state(), before); '
        'assert "torch._dynamo" not in sys.modules'
    )
    run(['-c', code], cwd=ROOT)


# -----------------------------------------------------------------------------
# device and dtype


@pytest.mark.parametrize(
    'trained_dtype, expected',
    [('float32', torch.float32), ('auto', torch.bfloat16), ('bfloat16', torch.bfloat16)],
)
def test_what_was_trained_in_float32_is_used_in_float32(monkeypatch, trained_dtype, expected):
    """Else a processor that multiplies bfloat16 would give other probabilities than were judged."""
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'avx512_bf16': True})
    device, dtype = choose_device('cpu', 'auto', trained_dtype)
    assert device == 'cpu'
    assert dtype == expected


def test_bfloat16_is_not_chosen_where_it_is_emulated(monkeypatch):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'avx512_bf16': False})
    assert choose_device('cpu', 'auto') == ('cpu', torch.float32)
    assert choose_device('cpu', 'bfloat16') == ('cpu', torch.bfloat16)  # but may be asked for


def test_a_device_or_dtype_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match='device=cuda:99 cannot be used here: .*--device=cpu'):
        choose_device('cuda:99')
    with pytest.raises(ValueError, match='dtype=float8 is unknown'):
        choose_device('cpu', 'float8')
