"""
Poor man's configurator, with checks. A script declares its settings as bare names and
calls configure:

    learning_rate = 1e-3  # 5e-5 to fine-tune
    config = configure(globals())

$ python train.py config/train_sentiment_scratch.py --learning_rate=5e-4

Config files and --name=value apply in the order given, so a later one wins. Names and
types are checked in both, and a mistake is answered by one line on stderr. --help lists
the settings with their types and comments, for which a script may define two constants:

    FIRST = ('learning_rate', 'dtype')  # the settings that matter most
    CHOICES = {'dtype': ('auto', 'float32', 'bfloat16')}  # what a setting may be

The script itself has to check that a value is one of the choices.
"""

import ast
import contextlib
import os
import re
import signal
import sys
import traceback
import types
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import zip_longest
from textwrap import wrap

# -----------------------------------------------------------------------------
# how a script ends


def stop(message):
    """
    Ends the program with exit status 2 and one line on stderr, for what the user can correct.

    The message says what is wrong, where, and the remedy.
    """
    print_error(' '.join(str(message).split()))
    sys.exit(2)


def print_error(line):
    """Prints a line on stderr, see printable, unless that is gone with a closed terminal."""
    with contextlib.suppress(OSError):
        print(printable(line), file=sys.stderr)


CONTROL_CHARACTER = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f]')


def printable(text):
    """
    A text from a file, without what a terminal would take for a command: the escape character is
    shown as \\x1b. Line ends and tabs stay.
    """
    return CONTROL_CHARACTER.sub(lambda match: f'\\x{ord(match[0]):02x}', text)


def run_script(main):
    """
    Calls a script's main(), and ends with one line on stderr where it fails by what a user can mend
    or has done: exit status 2 for a mistake, 130 after Ctrl-C, 141 if the reader of the output has
    gone away, which says nothing, because `| head` has what it wants.
    """
    try:
        main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print_error('interrupted')
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        discard_stdout()
        sys.exit(141)  # 128 + SIGPIPE, which Windows does not know
    except ValueError as error:
        stop(error)
    except OSError as error:
        # Our own files are written so that an error names them. One without a name is of stdout,
        # or of a file that is being read.
        if error.filename is None and error.errno is not None:
            discard_stdout()
            what = f'stdout cannot be written, or a file not read ({error.strerror})'
            stop(f'{what}; make room, or send the output elsewhere')
        stop(f'{error}; check the files named')


def discard_stdout():
    """From here on stdout is /dev/null; else Python would fail to write the rest when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -----------------------------------------------------------------------------
# settings


def is_public_name(name):
    return not name.startswith('_')


def declared_settings(namespace):
    """The settings among a script's or module's globals: lower-case names of a number or a str."""
    settings = {}
    for name, value in namespace.items():
        is_setting = is_public_name(name) and name.islower()
        if is_setting and isinstance(value, (int, float, str)):  # bool is an int
            settings[name] = value
    return settings


# -----------------------------------------------------------------------------
# --help

HELP_WIDTH = 120  # characters
KINDS = {bool: 'True/False', int: 'int', float: 'float', str: 'text'}
KIND_WIDTH = len('True/False')


@dataclass
class Setting:
    """A setting as --help shows it."""

    name: str
    flag: str  # with the default as the source writes it: --min_lr=1e-3, not --min_lr=0.001
    kind: str  # its type or its choices
    advice: list[str]  # the comment beside it, then those directly above it
    group: str  # the comment of its group, such as '# optimizer', or ''
    file: str  # the script or module that declares it, such as 'train.py'


def describe_kind(value, choices):
    """
    What a setting takes: its choices if it has any, else its type in a word.

    Example: 1 and () -> 'int'; 'auto' and ('auto', 'on', 'off') -> 'auto | on | off'.
    """
    if not choices:
        return KINDS[type(value)]
    words = []
    for choice in choices:
        if choice == '':
            words.append("''")
        else:
            words.append(str(choice))
    return ' | '.join(words)


def read_settings(namespace, choices):
    """
    The settings of a script or module, in the order and with the comments of its source.

    A comment of one word is the heading of a group; a remark may follow it after a semicolon.
    Any other comment directly above a setting is advice on that setting. Example: the lines
        # optimizer
        # one step reads batch_size texts
        max_iters = 100  # at most
    give Setting('max_iters', '--max_iters=100', 'int', advice=['at most', 'one step reads
    batch_size texts'], group='# optimizer', file='train.py').
    """
    path = namespace['__file__']
    with open(path, encoding='utf-8') as f:
        source = f.read()
    # settings stand above the call of configure, the first line that begins with it
    top = re.split(r'^\s*(?:\w+ *= *)?configure\(', source, maxsplit=1, flags=re.MULTILINE)[0]

    values = declared_settings(namespace)
    settings = []
    group = ''
    comments = []  # those directly above the line
    for line in top.splitlines():
        if re.match(r'# *\w[^\s;]*(;.*)?$', line):  # a single word, or one before a semicolon
            group = line
            comments = []
            continue
        if line.startswith('# ') and not line.startswith('# ---'):
            comments.append(line.removeprefix('# '))
            continue

        assignment = re.match(r'(\w+) *= *(.*)', line)
        if assignment and assignment[1] in values:
            name = assignment[1]
            default, _, beside = assignment[2].partition(' #')
            advice = [beside.strip(), *comments] if beside else comments
            setting = Setting(
                name=name,
                flag=f'--{name}={default.strip()}',
                kind=describe_kind(values[name], choices.get(name)),
                advice=advice,
                group=group,
                file=os.path.basename(path),
            )
            settings.append(setting)
        comments = []
    return settings


def print_setting(setting, flag_width):
    """
    Prints a setting in three columns: flag with default, type or choices, advice.

    Choices may take the room of the advice, which then begins below them:

      --max_iters=100  int         at most
      --dtype='auto'   auto | float32 | bfloat16
                                   auto: bfloat16 where the hardware multiplies it
    """
    indent = ' ' * (2 + flag_width + 2 + KIND_WIDTH + 2)
    advice = []
    for comment in setting.advice:
        advice += wrap(comment, HELP_WIDTH - len(indent), break_on_hyphens=False)

    line = f'  {setting.flag:<{flag_width}}  {setting.kind:<{KIND_WIDTH}}'
    if advice and len(setting.kind) <= KIND_WIDTH:
        line += f'  {advice.pop(0)}'
    print(line.rstrip())
    for line in advice:
        print(indent + line)


def print_usage(script_globals):
    """Prints how a script is called and the first paragraph of its docstring."""
    script = os.path.basename(script_globals['__file__'])
    print(f'Usage: python {script} [config.py ...] [--name=value ...]')
    docstring = script_globals.get('__doc__')
    if docstring:
        first_paragraph = docstring.strip().split('\n\n')[0]
        print(f'\n{first_paragraph}')
    print('\nConfig files and --name=value apply in the order given, so a later one wins.')
    print('Each line below shows a setting with its default, then its type or its choices.')


def print_help(script_globals, modules):
    """
    Prints usage and settings: those that the script's FIRST names, then the others in groups.

    Each setting is shown once. CHOICES of the script and of the modules say what one may be.
    """
    namespaces = [script_globals, *map(vars, modules)]
    choices = {}
    for namespace in reversed(namespaces):
        choices |= namespace.get('CHOICES', {})
    settings = {}
    for namespace in namespaces:
        for setting in read_settings(namespace, choices):
            # a name declared twice belongs to the script, or else to the first of the modules
            settings.setdefault(setting.name, setting)
    flag_width = max(len(setting.flag) for setting in settings.values())

    print_usage(script_globals)
    first_names = script_globals.get('FIRST', ())
    unknown = set(first_names) - set(settings)
    assert not unknown, f'FIRST names unknown settings: {unknown}'
    title = 'Settings of'
    if first_names:
        title = 'Other settings of'
        print('\nSettings that matter most:\n')
    for name in first_names:
        print_setting(settings.pop(name), flag_width)

    file = ''
    group = ''
    for setting in settings.values():
        if setting.file != file:
            file = setting.file
            group = ''
            print(f'\n{title} {file}:')
        if setting.group != group:
            group = setting.group
            print(f'\n{group}')
        print_setting(setting, flag_width)
    # now, because configure knows what to do if a reader such as `head` has closed the pipe
    sys.stdout.flush()


# -----------------------------------------------------------------------------
# config files and values


def run_config_file(name):
    """
    Runs a config file and returns the names that it assigns, as {name: value}.

    The file is looked for in the working directory, then beside configurator.py. It does not
    see the script's globals, so it cannot compute with the script's defaults. Names that begin
    with an underscore and imported modules are the file's own, so they are left out.
    """
    path = name
    if not os.path.isfile(path):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)

    namespace = {'__name__': 'config', '__file__': path}
    try:
        with open(path, 'rb') as f:
            exec(compile(f.read(), path, 'exec'), namespace)
    except (Exception, SystemExit) as error:
        where = name
        # the error may have arisen in a function of the file or of a library, so name the
        # line at the file's top level that led to it; broken syntax has no such line
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == path]
        if lines:
            where = f'{name}, line {lines[0]}'
        elif isinstance(error, SyntaxError):
            where = f'{name}, line {error.lineno}'
        stop(f'{where}: {type(error).__name__}: {error}; correct the file or its path')

    settings = {}
    for key, value in namespace.items():
        if is_public_name(key) and not isinstance(value, types.ModuleType):
            settings[key] = value
    return settings


def parse_value(text, default):
    """
    The value that a text from the command line stands for, given the setting's default.

    Where the default is a str it stands for itself: the 0 of --device=0 is a name. Elsewhere '3'
    is 3 and 'true' is True; a text that is neither number nor truth value stays a str, which
    check_value refuses.
    """
    if isinstance(default, str):
        return text
    if text in ('true', 'false'):
        text = text.title()
    try:
        value = ast.literal_eval(text)
    except Exception:  # not a literal of Python
        return text
    if isinstance(value, (int, float)):  # bool is an int
        return value
    return text


def check_name(where, name, defaults):
    """Stops the program unless there is a setting of this name."""
    if name not in defaults:
        nearest = get_close_matches(name, defaults, n=1, cutoff=0)[0]
        stop(f"{where}: unknown setting '{name}'; nearest: {nearest}; see --help")


def check_value(where, name, value, default):
    """Returns the value, an int as a float where the default is a float; stops on a wrong type."""
    if type(default) is float and type(value) is int:
        return float(value)
    # the exact type: True must not pass for the number 1
    if type(value) is not type(default):
        wrong = type(value).__name__
        right = type(default).__name__
        stop(f'{where}: {name}={value!r} is {wrong}; write a value of type {right}')
    return value


# -----------------------------------------------------------------------------
# the call that every script makes


def configure(script_globals, *modules, argv=None):
    """
    Overrides the settings of a script by its command line, and returns them all as a dict.

    script_globals  globals() of the script, in which its own settings are overridden
    modules         modules whose settings the script takes as well, such as prepare; their
                    values are in the dict only. A name declared twice belongs to the script,
                    or else to the first of these modules
    argv            list of str; by default the command line of this process

    A mistake ends the program with exit status 2 before anything is overridden.
    """
    # labels may have letters that a terminal lacks; a notebook's stdout has no such method
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='backslashreplace')

    if argv is None:
        argv = sys.argv[1:]
    if '-h' in argv or '--help' in argv:
        try:
            print_help(script_globals, modules)
        except BrokenPipeError:  # a reader such as `head` has seen enough
            discard_stdout()
        sys.exit(0)

    own = declared_settings(script_globals)
    defaults = dict(own)
    for module in modules:
        for name, value in declared_settings(vars(module)).items():
            defaults.setdefault(name, value)

    config = dict(defaults)
    for arg, next_arg in zip_longest(argv, argv[1:], fillvalue='value'):
        if arg.endswith('.py') and not arg.startswith('-'):
            for name, value in run_config_file(arg).items():
                check_name(arg, name, defaults)
                config[name] = check_value(arg, name, value, defaults[name])
            continue

        name, equals, text = arg.removeprefix('--').partition('=')
        if not arg.startswith('--') or not equals:
            # in `--max_iters 3` the value is the next argument
            remedy = f"write --{name.lstrip('-')}={text or next_arg}, or a file's path"
            stop(f"command line: cannot read '{arg}'; {remedy}")
        check_name('command line', name, defaults)
        value = parse_value(text, defaults[name])
        config[name] = check_value('command line', name, value, defaults[name])

    for name in own:
        script_globals[name] = config[name]
    return config
