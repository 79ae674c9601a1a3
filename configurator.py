"""Poor man's configurator, with checks. Files and flags count in this order: train.py config/x.py --batch_size=8"""

import ast
import os
import re
import sys
import traceback
from contextlib import suppress
from difflib import get_close_matches


def stop(message):
    """For what the user can mend: one line on stderr (what is wrong, where, the remedy), exit status 2."""
    print(' '.join(str(message).split()), file=sys.stderr)
    raise SystemExit(2)


def run_file(name):
    """A config file, from the working directory or else from beside this file -> [(name, value)] of what it assigns."""
    path = name if os.path.isfile(name) else os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    try:
        with open(path, 'rb') as f:
            exec(compile(f.read(), path, 'exec'), space := {'__name__': 'config', '__file__': path})
    except (Exception, SystemExit) as e:
        at = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        at = f', line {at[0] if at else e.lineno}' if at or isinstance(e, SyntaxError) else ''
        stop(f'{name}{at}: {type(e).__name__}: {e}; mend the file, or its path')
    return [(k, v) for k, v in space.items() if k[0] != '_' and type(v) is not type(os)]  # no scratch, no modules


def configure(settings, argv=None):
    """Override settings (a script's globals) by argv, all or nothing, and return a dict of the settings alone."""
    getattr(sys.stdout, 'reconfigure', dict)(errors='backslashreplace')  # a terminal may lack letters, a notebook this method
    new = dict(old := {k: v for k, v in settings.items() if k[0] != '_' and k.islower() and isinstance(v, (int, float, str))})
    if {'-h', '--help'} & set(argv := sys.argv[1:] if argv is None else argv):
        with open(settings['__file__'], encoding='utf-8') as f:  # the top of the script is the documentation
            top = re.split(r'^\s*(?:\w+ *= *)?configure\(', f.read(), maxsplit=1, flags=re.M)[0]
        found = re.findall(r'^(?:(# *\w.*)\n)?(\w+) *= *(.*)$', top, flags=re.M)
        lines = [f'\n{head}\n' * bool(head) + f'  --{key}={rest}\n' for head, key, rest in found if key in old]
        raise SystemExit(print(''.join(lines), end='', flush=True))  # None: status 0; at once: "| head" may not wait for more
    for arg, after in zip(argv, [*argv[1:], 'value']):
        key, equals, text = arg.removeprefix('--').partition('=')
        is_file = arg.endswith('.py') and arg[0] != '-'
        if not is_file and not (equals and arg.startswith('--')):
            stop(f"command line: cannot read '{arg}'; write --{key.lstrip('-')}={text or after}, or a file's path")
        where, given = (arg, run_file(arg)) if is_file else ('command line', [(key, text)])
        for key, value in given:
            if key not in old:
                stop(f"{where}: unknown setting '{key}'; nearest: {get_close_matches(key, old, 1, 0)[0]}; see --help")
            kind = type(old[key])
            fits = (str, bool) if old[key] == 'auto' else (float, int) if kind is float else (kind,)
            if not is_file and fits != (str,):  # a str is taken as it was typed
                with suppress(Exception):  # no literal: it stays a str
                    typed = ast.literal_eval(text.title() if text in ('true', 'false') else text)
                    value = typed if type(typed) in fits or str not in fits and isinstance(typed, (int, float)) else text
            if type(value) not in fits:
                stop(f'{where}: {key}={value!r} is {type(value).__name__}; write a value of type {kind.__name__}')
            new[key] = float(value) if kind is float else value
    settings.update(new)
    return new
