"""
No room: every program with a limit on the size of a file, at random sizes. What it was to write is
there whole or not at all, and one line names the file and the remedy.

$ FULL=50 python -m pytest -m stress tests/stress/test_full.py    # 50 limits for each program
"""

import os
import random
import resource
import shutil
import signal

import pytest
from conftest import run, write_rows

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(os.name == 'nt', reason='the limit is one of Unix'),
]
FULL = int(os.getenv('FULL', '3'))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A folder with rows.csv, its prepared data, and a finished run in it."""
    folder = tmp_path_factory.mktemp('full')
    write_rows(folder / 'rows.csv', 120)
    run('train.py', *training_flags(folder), f'--out_dir={folder}/run')
    return folder


def training_flags(folder):
    return [
        *(f'--dataset={folder}/rows.csv', f'--data_dir={folder}/data', '--text_column=body'),
        *('--label_column=mood', '--n_layer=2', '--n_head=2', '--n_embd=16', '--block_size=32'),
        *('--tokenizer=bpe300', '--max_epochs=2', '--device=cpu', '--dtype=float32'),
    ]


def commands(folder):
    """{program: its arguments, and the largest file that it writes, about}"""
    run_folder = f'--out_dir={folder}/run'
    rows = [f'--input={folder}/rows.csv', '--text_column=body']
    prepared = [
        flag for flag in training_flags(folder)
        if flag.startswith(('--dataset', '--text', '--label', '--data_dir', '--tokenizer'))
    ]  # fmt: skip
    return {
        'prepare.py': ([*prepared, '--val_fraction=0.2'], 20_000),
        'train.py': ([*training_flags(folder), f'--out_dir={folder}/new'], 150_000),
        'evaluate.py': ([run_folder, '--split=val', '--device=cpu'], 15_000),
        'sample_classify.py': ([run_folder, *rows, f'--output={folder}/answers.csv'], 12_000),
        'report.py': ([run_folder], 60_000),
        'export.py': ([run_folder, f'--output={folder}/hf'], 60_000),
    }


@pytest.mark.parametrize(
    'program',
    ['prepare.py', 'train.py', 'evaluate.py', 'sample_classify.py', 'report.py', 'export.py'],
)
def test_no_room_is_one_line_and_leaves_what_was_there(finished, tmp_path, program):
    rng = random.Random(program)
    for case in range(FULL):
        folder = tmp_path / 'copy'
        shutil.copytree(finished, folder)
        args, largest = commands(folder)[program]
        # the command names the copy, whose run was trained on the rows of the first folder
        before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
        limit = rng.randrange(largest)
        if case == 0:
            limit = largest // 2  # in train.py the data and the log fit, and no checkpoint does

        def set_limit(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        result = run(program, *args, status=None, preexec_fn=set_limit)
        assert 'Traceback' not in result.err, (limit, result.err)
        assert result.status in (0, 2), (limit, result.err)
        if result.status == 2:
            line = result.err.strip().splitlines()[-1]
            assert str(folder) in line and 'cannot be' in line and ';' in line, (limit, line)
        elif program == 'sample_classify.py':
            answers = (folder / 'answers.csv').read_text()
            assert answers.count('\n') == 121, (limit, answers)
        leftovers = [path for path in folder.rglob('*') if path.name.endswith('.tmp')]
        assert leftovers == []
        for path, content in before.items():
            if path.suffix in ('.csv', '.json', '.pt') and path.name != 'rejected.csv':
                assert path.read_bytes() == content or result.status == 0, (limit, path)
        shutil.rmtree(folder)
