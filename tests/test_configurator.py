"""The configurator: whatever a user types, it is applied as meant or answered by one line."""

import importlib
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest
from conftest import ROOT

import configurator
from configurator import configure, declared_settings, printable, stop

SCRIPT = """
\"\"\"
A script; its text may well say configure(globals()).

The second paragraph has no place in --help.
\"\"\"
import os
import corpus
from configurator import configure, stop
# -----------------------------------------------------------------------------
# i/o
out_dir = 'out'  # checkpoints go here
# optimizer
learning_rate = 1e-3  # 5e-5 to fine-tune
max_iters = 100
# -----------------------------------------------------------------------------
config = configure(globals(), corpus)
# after
later = 1
print(config, out_dir, max_iters)
"""

MODULE = """
\"\"\"A module with settings of its own; max_iters belongs to the script that imports it.\"\"\"
from configurator import configure
# text
max_iters = 7
lowercase = True  # capitals rarely matter
# split
LIMIT = 3
folds = 0
if __name__ == '__main__':
    config = configure(globals())
"""


def make_globals():
    """What globals() of a script may hold: six settings, then names that are none."""
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


SETTINGS = ['max_iters', 'dropout', 'learning_rate', 'wandb_run_name', 'wandb_log', 'dtype']


def make_module(**settings):
    """A module that declares these settings."""
    module = ModuleType('corpus')
    vars(module).update(settings)
    return module


def error_of(capsys, argv):
    """The one line on stderr of a configure that must fail and change nothing."""
    script_globals = make_globals()
    with pytest.raises(SystemExit) as exit_info:
        configure(script_globals, argv=argv)
    stdout, stderr = capsys.readouterr()
    assert exit_info.value.code == 2
    assert stdout == ''
    assert stderr.count('\n') == 1, stderr
    assert script_globals == make_globals(), 'an error must change nothing'
    return stderr


@pytest.mark.parametrize(
    'flag, name, value',
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
        ('--dtype=False', 'dtype', 'False'),
        ('--dtype=7', 'dtype', '7'),  # such as --device=0, which is a name
        ('--dtype=None', 'dtype', 'None'),
    ],
)
def test_a_flag_is_read_as_the_type_of_its_setting(flag, name, value):
    """An int will do for a float and becomes one; a str setting takes whatever was typed."""
    script_globals = make_globals()
    config = configure(script_globals, argv=[flag])
    assert script_globals[name] == value
    assert type(script_globals[name]) is type(value)
    assert config == {key: script_globals[key] for key in SETTINGS}


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
def test_a_mistake_is_answered_by_what_where_and_the_remedy(capsys, argv, words):
    """nanoGPT users met an empty AssertionError (its issue 439), or a default in silence."""
    error = error_of(capsys, argv)
    assert all(word in error for word in words), error


def test_a_config_file_is_python_and_a_later_argument_wins(tmp_path):
    """A file may compute: names with an underscore and imported modules are no settings."""
    file = tmp_path / 'a.py'
    text = 'import math\n_n = 3\nmax_iters = _n * 2\nlearning_rate = math.pi\n'
    file.write_text(text + 'dropout = 0\n')
    script_globals = make_globals()
    configure(script_globals, argv=['--max_iters=1', str(file), '--learning_rate=2'])
    assert script_globals['max_iters'] == 6
    assert script_globals['dropout'] == 0 and type(script_globals['dropout']) is float
    assert script_globals['learning_rate'] == 2.0
    assert '_n' not in script_globals and 'math' not in script_globals
    assert configure(make_globals(), argv=[str(file), '--max_iters=1'])['max_iters'] == 1


@pytest.mark.parametrize(
    'text, words',
    [
        ('max_iter = 5\n', ['max_iter', 'max_iters']),
        ('\nfor i in range(3): pass\n', ["'i'"]),
        ('max_iters = 0.5\n', ['max_iters', 'float', 'int']),
        ('wandb_run_name = 5\n', ['int', 'str']),
        ('wandb_log = None\n', ['NoneType', 'bool']),
        ('dropout = True\n', ['bool', 'float']),
        ('dtype = True\n', ['bool', 'str']),
        ('max_iters = dropout * 10\n', ['line 1', 'NameError']),
        ('x = 1\n\ndropout = 1 / 0\n', ['line 3', 'ZeroDivisionError']),
        ('def _f():\n    return _g()\n\ndropout = _f()\n', ['line 4', 'NameError']),
        ('x = 1\ndropout = = 2\n', ['line 2', 'SyntaxError']),
        ('import json\njson.loads("")\n', ['line 2', 'JSONDecodeError']),
        ('import sys\nsys.exit()\n', ['line 2', 'SystemExit']),
    ],
)
def test_a_mistake_in_a_config_file_is_found_and_placed(capsys, tmp_path, text, words):
    """A typo in a file is worse than one in a flag, because the file is used again and again."""
    file = tmp_path / 'typo.py'
    file.write_text(text)
    error = error_of(capsys, ['--max_iters=7', str(file)])
    assert all(word in error for word in ['typo.py', *words]), error


def test_settings_of_a_module_are_in_the_dict_only(tmp_path):
    """train.py takes prepare.py's settings this way, so that each is declared once."""
    file = tmp_path / 'a.py'
    file.write_text('folds = 5\nmax_iters = 2\n')
    script_globals = make_globals()
    module = make_module(max_iters=9, folds=0, val_fraction=0.1, LIMIT=3)

    config = configure(script_globals, module, argv=[str(file), '--val_fraction=1'])

    assert list(config) == [*SETTINGS, 'folds', 'val_fraction'], "the script's own come first"
    assert (config['folds'], config['val_fraction'], config['max_iters']) == (5, 1.0, 2)
    assert 'folds' not in script_globals and 'val_fraction' not in script_globals
    assert (module.folds, module.val_fraction, module.max_iters) == (0, 0.1, 9)


def test_a_name_declared_twice_belongs_to_the_script(capsys):
    """Default and type are the script's: tokenizer is 'auto' to train.py, whatever prepare says."""
    modules = [make_module(max_iters='many', folds=0), make_module(folds='none')]
    config = configure(make_globals(), *modules, argv=[])
    assert config['max_iters'] == 100
    assert config['folds'] == 0, 'of two modules, it belongs to the first'
    with pytest.raises(SystemExit):
        configure(make_globals(), *modules, argv=['--max_iters=many'])
    assert 'max_iters' in capsys.readouterr().err


def test_a_script_runs_from_any_directory_and_lists_its_settings(tmp_path):
    """--help shows what stands at the top of the script, then what its modules add."""
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    (tmp_path / 'corpus.py').write_text(MODULE)
    (tmp_path / 'conf').mkdir()
    (tmp_path / 'conf' / 'a.py').write_text("out_dir = 'elsewhere'\nfolds = 5\n")

    def run_script(*argv):
        command = [sys.executable, str(script), *argv]
        env = {**os.environ, 'PYTHONPATH': ROOT}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    result = run_script('conf/a.py', '--max_iters=3')
    assert result.stdout.endswith("'lowercase': True, 'folds': 5} elsewhere 3\n"), result.stderr

    for flag in ['-h', '--help']:
        result = run_script(flag, '--typo=1')
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout.split('\n') == [
            'Usage: python script.py [config.py ...] [--name=value ...]',
            '',
            'A script; its text may well say configure(globals()).',
            '',
            'Config files and --name=value apply in the order given, so a later one wins.',
            'Each line below shows a setting with its default, then its type or its choices.',
            '',
            'Settings of script.py:',
            '',
            '# i/o',
            "  --out_dir='out'       text        checkpoints go here",
            '',
            '# optimizer',
            '  --learning_rate=1e-3  float       5e-5 to fine-tune',
            '  --max_iters=100       int',
            '',
            'Settings of corpus.py:',
            '',
            '# text',
            '  --lowercase=True      True/False  capitals rarely matter',
            '',
            '# split',
            '  --folds=0             int',
            '',
        ]

    result = run_script('--max_iters=x')
    assert (result.returncode, result.stdout, result.stderr.count('\n')) == (2, '', 1)


def write_module(path, source):
    """Writes a file, and returns the module that importing it would give."""
    path.write_text(source)
    module = make_module(__file__=str(path))
    exec(source, vars(module))
    return module


def help_of(capsys, script, *modules):
    """What --help prints below the usage."""
    with pytest.raises(SystemExit) as exit_info:
        configure(vars(script), *modules, argv=['--help'])
    assert exit_info.value.code == 0
    usage, _, settings = capsys.readouterr().out.partition('its choices.\n')
    assert usage.startswith('Usage: ')
    return settings


def listed_settings(help_text):
    """The first line of each setting in a --help, as (name, type or choices with advice)."""
    listed = []
    for line in help_text.splitlines():
        match = re.match(r"  --(\w+)=('[^']*'|\S+) +(.*)", line)
        if match:
            listed.append((match[1], match[3]))
    return listed


def test_help_lists_a_name_declared_twice_once(tmp_path, capsys):
    """It is listed where it belongs, with the default that applies."""
    script = write_module(tmp_path / 'script.py', 'max_iters = 1\n')
    first = write_module(tmp_path / 'first.py', "max_iters = 'two'\nfolds = 2\n")
    second = write_module(tmp_path / 'second.py', "max_iters = 3\nfolds = 'three'\n")
    assert help_of(capsys, script, first, second).splitlines() == [
        '',
        'Settings of script.py:',
        '  --max_iters=1  int',
        '',
        'Settings of first.py:',
        '  --folds=2      int',
    ]


FIRST_SCRIPT = """
# text
val_fraction = 0.1
max_length = 100
# seeds
seed = 1
# -----
FIRST = ('dataset', 'seed')
"""

FIRST_MODULE = """
# text
folds = 0
# data
dataset = 'a'  # a file
# -----
FIRST = ('folds',)
"""


def test_help_shows_first_what_matters_most(tmp_path, capsys):
    """A newcomer needs fifteen of train.py's seventy settings, some of which are prepare.py's."""
    script = write_module(tmp_path / 'script.py', FIRST_SCRIPT)
    module = write_module(tmp_path / 'corpus.py', FIRST_MODULE)
    assert help_of(capsys, script, module).splitlines() == [
        '',
        'Settings that matter most:',
        '',
        "  --dataset='a'       text        a file",
        '  --seed=1            int',
        '',
        'Other settings of script.py:',
        '',
        '# text',
        '  --val_fraction=0.1  float',
        '  --max_length=100    int',
        '',
        'Other settings of corpus.py:',
        '',
        '# text',
        '  --folds=0           int',
    ]


def test_a_first_setting_that_does_not_exist_is_an_error(tmp_path):
    """A setting that was renamed would otherwise leave the top of --help unnoticed."""
    script = write_module(tmp_path / 'script.py', "seed = 1\nFIRST = ('seed', 'sede')\n")
    with pytest.raises(AssertionError, match='sede'):
        configure(vars(script), argv=['--help'])


CHOICES_SCRIPT = """
peer = ''
split = 1
CHOICES = {
    'peer': ('', 'gpt2'),
    'split': (1, 2),
    'keep': ('first', 'last', 'both'),
}
"""

CHOICES_MODULE = """
keep = 'last'  # which end
split = 'val'
case = 'low'  # of letters
CHOICES = {
    'split': ('val', 'test'),
    'case': ('low', 'up'),
}
"""


def test_help_shows_choices_in_place_of_the_type(tmp_path, capsys):
    """'text' does not tell what to write. As in train.py, some choices are for the module."""
    script = write_module(tmp_path / 'script.py', CHOICES_SCRIPT)
    module = write_module(tmp_path / 'corpus.py', CHOICES_MODULE)
    assert help_of(capsys, script, module).splitlines() == [
        '',
        'Settings of script.py:',
        "  --peer=''      '' | gpt2",
        '  --split=1      1 | 2',
        '',
        'Settings of corpus.py:',
        "  --keep='last'  first | last | both",
        '                             which end',
        "  --case='low'   low | up    of letters",
    ]


ADVICE_SCRIPT = """
# this is about all groups
# text; a remark on the group
# 'auto' is bpe2048
# or what the checkpoint has
tokenizer = 'auto'  # or gpt2
# capitals rarely matter
lowercase = True # one space
# this is about no setting

folds = 0
"""


def test_a_comment_above_a_setting_is_shown_as_its_advice(tmp_path, capsys):
    """Some advice is too long for the line of the setting; a group's comment is one word."""
    script = write_module(tmp_path / 'script.py', ADVICE_SCRIPT)
    assert help_of(capsys, script).splitlines()[3:] == [
        '# text; a remark on the group',
        "  --tokenizer='auto'  text        or gpt2",
        "                                  'auto' is bpe2048",
        '                                  or what the checkpoint has',
        '  --lowercase=True    True/False  one space',
        '                                  capitals rarely matter',
        '  --folds=0           int',
    ]


def test_long_advice_goes_on_below_itself(tmp_path, capsys):
    """A line that the terminal breaks hides the column of names, in which one searches."""
    words = ['advice', *['fine-tuned-weights'] * 6, *['#2'] * 40]
    script = write_module(tmp_path / 'script.py', f'seed = 1  # {" ".join(words)}\n')

    lines = help_of(capsys, script).splitlines()[2:]

    assert max(len(line) for line in lines) <= 120
    assert lines[0].startswith('  --seed=1  int         advice fine-tuned')
    column = lines[0].index('advice')
    assert lines[1][:column].isspace() and not lines[1][column].isspace()
    assert ' '.join(lines).split()[2:] == words, 'nothing is lost or split'


@pytest.mark.parametrize(
    'name', ['bench', 'evaluate', 'prepare', 'report', 'sample_classify', 'train']
)
def test_help_of_every_script_lists_each_setting_once(run_here, name):
    """A setting that --help does not show is unknown to most, and one shown twice confuses."""
    script = importlib.import_module(name)
    declared = declared_settings(vars(script))
    choices = getattr(script, 'CHOICES', {})
    first = getattr(script, 'FIRST', ())
    if name == 'train':
        declared = declared_settings(vars(script.prepare)) | declared

    listed = listed_settings(run_here(f'{name}.py', '--help').out)

    names = [name for name, _ in listed]
    assert sorted(names) == sorted(declared)
    assert names[: len(first)] == list(first)
    types = {bool: 'True/False', int: 'int', float: 'float', str: 'text'}
    for name, kind_and_advice in listed:
        kind = kind_and_advice.split('  ')[0]
        if name in choices:
            assert kind.replace("''", '').split(' | ') == list(choices[name])
        else:
            assert kind == types[type(declared[name])]


def test_a_config_is_found_beside_configurator_py(tmp_path, monkeypatch):
    """`python /elsewhere/train.py config/x.py` means the repository's config/ if none is here."""
    (tmp_path / 'repo' / 'config').mkdir(parents=True)
    (tmp_path / 'repo' / 'config' / 'x.py').write_text('max_iters = 1\n')
    monkeypatch.setattr(configurator, '__file__', str(tmp_path / 'repo' / 'configurator.py'))
    monkeypatch.chdir(tmp_path)
    assert configure(make_globals(), argv=['config/x.py'])['max_iters'] == 1

    (tmp_path / 'config').mkdir()
    (tmp_path / 'config' / 'x.py').write_text('max_iters = 2\n')
    assert configure(make_globals(), argv=['config/x.py'])['max_iters'] == 2


def test_stop_prints_one_line(capsys):
    """Messages of other libraries have line ends in them; a log wants one line per mistake."""
    with pytest.raises(SystemExit) as exit_info:
        stop('first\n  second')
    assert exit_info.value.code == 2
    assert capsys.readouterr() == ('', 'first second\n')


def test_without_arguments_the_defaults_stand():
    """The commonest command line of all: python sample_classify.py."""
    script_globals = make_globals()
    assert configure(script_globals, argv=[])
    assert script_globals == make_globals()


def run_after_configure(setup, encoding):
    """stdout of a process that prints a Chinese letter after configure."""
    code = f'import sys; {setup}; from configurator import configure; configure({{}}, argv=[])'
    result = subprocess.run(
        [sys.executable, '-c', f'{code}; print("done", "\\u4f60")'],
        cwd=ROOT,
        env={**os.environ, 'PYTHONIOENCODING': encoding},
        capture_output=True,
        encoding='utf-8',
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_letter_that_the_terminal_lacks_is_printed_as_its_number():
    """Pipes on Windows have cp1252: train.py ended in a UnicodeEncodeError over a label."""
    assert run_after_configure('pass', 'cp1252').split() == ['done', '\\u4f60']


def test_a_stdout_that_cannot_be_reconfigured_is_left_alone():
    """A notebook's stdout has no reconfigure()."""
    cell = 'type("Cell", (), dict(write=sys.stdout.write, flush=sys.stdout.flush))()'
    assert run_after_configure(f'sys.stdout = {cell}', 'utf-8').split() == ['done', '\u4f60']


def test_a_reader_may_close_the_pipe():
    """`python train.py --help | head` is how people look at a long list."""
    command = [sys.executable, f'{ROOT}/train.py', '--help']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b''
    assert process.wait() == 0


# -----------------------------------------------------------------------------
# how a script ends


def run_main(code, **options):
    """A script with this main(), in a process of its own -> exit status, stderr."""
    script = f'import os, sys\nfrom configurator import run_script\ndef main():\n    {code}\n'
    command = [sys.executable, '-c', f'{script}run_script(main)']
    options = {'stdout': subprocess.PIPE} | options
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)
    return done.returncode, done.stderr


def test_what_the_user_can_mend_is_one_line():
    assert run_main('raise ValueError("x is wrong;\\n set it")') == (2, 'x is wrong; set it\n')
    status, err = run_main('open("/nowhere/x")')
    assert status == 2
    assert err.count('\n') == 1 and '/nowhere/x' in err


def test_an_interrupted_script_says_so_in_one_line():
    """Ctrl-C printed the lines of a program that its user has not written."""
    assert run_main('raise KeyboardInterrupt') == (130, 'interrupted\n')


@pytest.mark.skipif(os.name == 'nt', reason='a shell of Unix')
def test_a_reader_who_has_seen_enough_is_no_error():
    code = 'from configurator import run_script; run_script(lambda: print("x\\n" * 100000))'
    command = f"{sys.executable} -c '{code}' | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ('x\n', '')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='/dev/full is of Linux')
@pytest.mark.parametrize('n', [1, 100_000])
def test_a_full_disk_behind_stdout_is_named(n):
    """The end of the output was lost, and the last lines of stderr spoke of a destructor."""
    with open('/dev/full', 'w') as full:
        status, err = run_main(f'print("x" * {n})', stdout=full)
    assert status == 2
    assert err.startswith('stdout cannot be written, or a file not read (No space left')
    assert err.count('\n') == 1


def test_a_script_without_a_stdout_still_runs(tmp_path):
    """Started by a service or with >&-."""
    code = f'print("x"); open({str(tmp_path / "done")!r}, "w")'
    assert run_main(code, stdout=None, preexec_fn=lambda: os.close(1)) == (0, '')
    assert os.path.exists(tmp_path / 'done')


def test_a_terminal_gets_no_commands_from_a_file():
    """A label or a text with an escape code could move the cursor or change colours."""
    assert printable('a\x1b[31mred\x07\r\n\tü\x9b') == 'a\\x1b[31mred\\x07\\x0d\n\tü\\x9b'
