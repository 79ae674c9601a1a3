# python -m pytest tests/test_configurator.py
"""The configurator: what nanoGPT's let pass in silence, or met with a bare AssertionError, has an answer here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configurator import configure, stop

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
\"\"\"A script; its text may well say configure(globals()).\"\"\"
import os
from configurator import configure, stop
# -----------------------------------------------------------------------------
# i/o
out_dir = 'out'  # checkpoints go here
# optimizer
learning_rate = 1e-3  # 5e-5 to fine-tune
max_iters = 100
# -----------------------------------------------------------------------------
config = configure(globals())
# after
later = 1
print(config, out_dir, max_iters)
"""


def settings():
    return dict(
        max_iters=100,
        dropout=0.2,
        learning_rate=1e-3,
        wandb_run_name='run',
        wandb_log=False,
        dtype='auto',
        _hidden=1,
        GLOBAL=2,
        os=sys,
    )


def fails(capsys, *argv):
    """Run configure with argv that must fail; -> its one line on stderr."""
    before = settings()
    after = dict(before)
    with pytest.raises(SystemExit) as e:
        configure(after, list(argv))
    out, err = capsys.readouterr()
    assert e.value.code == 2 and out == '' and err.count('\n') == 1, err
    assert after == before, 'an error must change nothing'
    return err


@pytest.mark.parametrize(
    'flag, key, value',
    [
        ('--max_iters=3', 'max_iters', 3),
        ('--dropout=0', 'dropout', 0.0),
        ('--learning_rate=1', 'learning_rate', 1.0),
        ('--learning_rate=-5e-5', 'learning_rate', -5e-5),
        ('--wandb_run_name=123', 'wandb_run_name', '123'),
        ('--wandb_run_name=a=b', 'wandb_run_name', 'a=b'),
        ('--wandb_run_name=', 'wandb_run_name', ''),
        ('--wandb_run_name=True', 'wandb_run_name', 'True'),
        ("--wandb_run_name='q'", 'wandb_run_name', "'q'"),
        ('--wandb_run_name=two\nlines.py', 'wandb_run_name', 'two\nlines.py'),
        ('--wandb_log=True', 'wandb_log', True),
        ('--wandb_log=true', 'wandb_log', True),
        ('--wandb_log=false', 'wandb_log', False),
        ('--dtype=bfloat16', 'dtype', 'bfloat16'),
        ('--dtype=False', 'dtype', False),
        ('--dtype=7', 'dtype', '7'),  # as --device=0 and --tokenizer=2048: an int would break what reads names
        ('--dtype=None', 'dtype', 'None'),
    ],
)
def test_flags_keep_the_type_of_the_setting(flag, key, value):
    """STYLE 3.4: int for float, and a str setting takes anything that is typed; the exact type counts (0.0, not 0)."""
    s = settings()
    config = configure(s, [flag])
    assert (s[key], type(s[key])) == (value, type(value))
    assert config == {k: s[k] for k in list(s)[:6]}, 'the dict holds the settings and nothing else'


@pytest.mark.parametrize(
    'argv, words',
    [
        (['--max_iter=5'], ['command line', 'max_iter', 'max_iters']),
        (['--max-iters=5'], ['max-iters', 'max_iters']),
        (['--_hidden=5'], ['_hidden']),
        (['--max_iters', '3'], ['--max_iters=3']),
        (['max_iters=3'], ['--max_iters=3']),
        (['-max_iters=3'], ['--max_iters=3']),
        (['--wandb_log'], ['--wandb_log=value']),
        (['--max_iters=1e4'], ['max_iters', 'float', 'int']),
        (['--max_iters=True'], ['bool', 'int']),
        (['--max_iters='], ['str', 'int']),
        (['--dropout=big'], ["'big'", 'str', 'float']),
        (['--wandb_log=1'], ['int', 'bool']),
        (['no/such.py'], ['no/such.py', 'path']),
        (['config'], ["'config'"]),
        ([''], ["''"]),
        (['--max_iters=3', '--dropout=0.5', '--typo=1'], ['typo']),
    ],
)
def test_a_mistake_is_one_line_that_says_what_where_and_the_remedy(capsys, argv, words):
    """Users met an empty AssertionError (nanoGPT issue 439), or a default in silence; and nothing may be half set."""
    err = fails(capsys, *argv)
    assert all(word in err for word in words), err


def test_a_config_file_has_scratch_and_modules_and_the_order_of_arguments_counts(tmp_path):
    """Files are Python of their own: names with _ and modules are theirs, and a later argument wins."""
    file = tmp_path / 'a.py'
    file.write_text('import math\n_n = 3\nmax_iters = _n * 2\ndropout = 0\ndtype = True\nlearning_rate = math.pi\n')
    s = settings()
    configure(s, ['--max_iters=1', str(file), '--learning_rate=2'])
    assert (s['max_iters'], s['dropout'], s['dtype'], s['learning_rate']) == (6, 0.0, True, 2.0)
    assert type(s['dropout']) is float and '_n' not in s and 'math' not in s
    assert configure(settings(), [str(file), '--max_iters=1'])['max_iters'] == 1


@pytest.mark.parametrize(
    'text, words',
    [
        ('max_iter = 5\n', ['max_iter', 'max_iters']),  # nanoGPT trained on with the default
        ('\nfor i in range(3): pass\n', ["'i'"]),
        ('max_iters = 0.5\n', ['max_iters', 'float', 'int']),
        ('wandb_run_name = 5\n', ['int', 'str']),
        ('wandb_log = None\n', ['NoneType', 'bool']),
        ('dropout = True\n', ['bool', 'float']),
        ('x = 1\n\ndropout = 1 / 0\n', ['line 3', 'ZeroDivisionError']),
        ('def _f():\n    return _g()\n\ndropout = _f()\n', ['line 4', 'NameError']),
        ('x = 1\ndropout = = 2\n', ['line 2', 'SyntaxError']),
        ('import json\njson.loads("")\n', ['line 2', 'JSONDecodeError']),
    ],
)
def test_a_mistake_in_a_config_file_names_the_file(capsys, tmp_path, text, words):
    """A typo in a file is worse than one in a flag: it is written once and believed for ever."""
    file = tmp_path / 'typo.py'
    file.write_text(text)
    err = fails(capsys, '--max_iters=7', str(file))
    assert all(word in err for word in ['typo.py', *words]), err


def test_it_works_from_any_directory_and_help_lists_the_settings(tmp_path):
    """nanoGPT's must be started from its own folder and takes -h for a file; the list is the script's own top."""
    script = tmp_path / 'script.py'
    script.write_text(f'import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}')
    (tmp_path / 'conf').mkdir()
    (tmp_path / 'conf' / 'a.py').write_text("out_dir = 'elsewhere'\n")

    def run(*argv):
        return subprocess.run([sys.executable, str(script), *argv], cwd=tmp_path, capture_output=True, text=True)

    assert run('conf/a.py', '--max_iters=3').stdout.endswith('} elsewhere 3\n')
    for flag in ['-h', '--help']:
        done = run(flag, '--typo=1')
        assert (done.returncode, done.stderr) == (0, '')
        assert done.stdout.split('\n') == [
            '',
            '# i/o',
            "  --out_dir='out'  # checkpoints go here",
            '',
            '# optimizer',
            '  --learning_rate=1e-3  # 5e-5 to fine-tune',
            '  --max_iters=100',
            '',
        ]
    done = run('--max_iters=x')
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1)


def test_a_config_is_found_beside_configurator_py(tmp_path, monkeypatch):
    """`python /elsewhere/train.py config/x.py` means the config/ of the repository, unless there is one here."""
    import configurator

    (tmp_path / 'repo' / 'config').mkdir(parents=True)
    (tmp_path / 'repo' / 'config' / 'x.py').write_text('max_iters = 1\n')
    monkeypatch.setattr(configurator, '__file__', str(tmp_path / 'repo' / 'configurator.py'))
    monkeypatch.chdir(tmp_path)
    assert configure(settings(), ['config/x.py'])['max_iters'] == 1
    (tmp_path / 'config').mkdir()
    (tmp_path / 'config' / 'x.py').write_text('max_iters = 2\n')
    assert configure(settings(), ['config/x.py'])['max_iters'] == 2


def test_stop_is_one_line(capsys):
    """Messages of other libraries have line ends in them; a log wants one line per mistake."""
    with pytest.raises(SystemExit) as e:
        stop('first\n  second')
    assert e.value.code == 2 and capsys.readouterr() == ('', 'first second\n')


def test_no_arguments_are_no_mistake():
    """The commonest command line of all: python sample_classify.py."""
    given = settings()
    assert configure(given, []) and given == settings()


@pytest.mark.parametrize('stdout', ['sys.stdout', 'type("Cell", (), dict(write=sys.stdout.write, flush=sys.stdout.flush))()'])
def test_labels_that_a_terminal_lacks_are_no_traceback(stdout):
    """Windows' pipes have cp1252: train.py ended in a UnicodeEncodeError. A notebook's stdout cannot be reconfigured at all."""
    begin = f'import sys; sys.stdout = {stdout}; from configurator import configure; configure({{}}, [])'
    env = {**os.environ, 'PYTHONIOENCODING': 'cp1252' if stdout == 'sys.stdout' else 'utf-8'}
    done = subprocess.run(
        [sys.executable, '-c', begin + '; print("done", "\\u4f60")'], cwd=ROOT, env=env, capture_output=True, encoding='utf-8'
    )
    assert done.stdout.split() == ['done', '\\u4f60' if stdout == 'sys.stdout' else '\u4f60'], done.stderr
