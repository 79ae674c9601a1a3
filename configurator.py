"""
Poor man's configurator, with checks. A script declares its settings as bare names and
calls configure:

    learning_rate = 1e-3  # 5e-5 to fine-tune
    config = configure(globals())

$ python train.py config/train_sentiment_scratch.py --learning_rate=5e-4

Config files and --name=value apply in the order given, so a later one wins. Names and
types are checked in both, and a mistake is answered by one line on stderr. --help lists
the settings with their comments.
"""

import ast
import os
import re
import sys
import traceback
import types
from difflib import get_close_matches
from itertools import zip_longest


def stop(message):
    """
    Ends the program with exit status 2 and one line on stderr, for what the user can correct.

    The message says what is wrong, where, and the remedy.
    """
    print(' '.join(str(message).split()), file=sys.stderr)
    sys.exit(2)


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


def print_settings(path, names):
    """
    Prints the lines of a file that declare `names`, under the comments that group them.

    Example: the line `max_iters = 100  # at most` below the line `# optimizer` is printed
    as `  --max_iters=100  # at most` below `# optimizer`.
    """
    with open(path, encoding='utf-8') as f:
        source = f.read()
    # settings stand above the call of configure, the first line that begins with it
    top = re.split(r'^\s*(?:\w+ *= *)?configure\(', source, maxsplit=1, flags=re.MULTILINE)[0]

    heading = ''
    for line in top.splitlines():
        assignment = re.match(r'(\w+) *= *(.*)', line)
        if assignment:
            name, value_and_advice = assignment.groups()
            if name not in names:
                continue  # without resetting the heading: the next setting may need it
            if heading:
                print(f'\n{heading}')
            print(f'  --{name}={value_and_advice}')
            heading = ''
        elif re.match(r'# *\w', line):
            heading = line
        else:
            heading = ''


def print_help(script_globals, modules):
    """Prints the settings of the script, then those that each module adds, with their comments."""
    known = set(declared_settings(script_globals))
    print_settings(script_globals['__file__'], known)
    for module in modules:
        added = set(declared_settings(vars(module))) - known
        print(f'\nSettings of {os.path.basename(module.__file__)}:')
        print_settings(module.__file__, added)
        known |= added
    # now, because a reader such as `head` may have closed the pipe by the time Python ends
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
        print_help(script_globals, modules)
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
