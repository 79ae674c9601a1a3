"""The data sets known by name, and where their files are found or downloaded from."""

import os

from nanosentiment.download import fetch
from nanosentiment.tables import KINDS, find_extension

DATA_DIR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data')

# the repository of a university course, at the commit of this project's figures
CUSTOMER_SERVICE_URL = (
    'https://raw.githubusercontent.com/caglarmert/DI725/'
    '4b066861287213ff0f1d44806c1b7ad63569d0e8/assignment_1/data/customer_service/{}'
)

# columns          the text's and the label's
# train            file of the training data, and the checksum of its download (md5 or sha256)
# test             likewise; every data set of this table has one
# url              {} stands for the file's name; zip#member is a file inside a zip archive, whose
#                  checksum is the archive's; '' if the files come with the code
# label_names      optional: what labels of the file are called
# rows_are_phrases optional: rows are phrases of other rows, see splitting.keep_phrases_together
DATASETS = {
    'customer_service': {
        'columns': ('conversation', 'customer_sentiment'),
        'train': (
            'train.csv',
            '17d90d76fb3ddd6bbdc816db48c1d9c68a51444618ca91916c8ffeadfe78947e',
        ),
        'test': (
            'test.csv',
            'b236188691c0c2e1fbba247eb554dde65c7b1bd2a70ef1ef3abf0e253eda407c',
        ),
        'url': CUSTOMER_SERVICE_URL,
    },
    # tweets and sentences of product reviews, rated by people; comes with the code
    'demo': {
        'columns': ('text', 'sentiment'),
        'train': ('train.csv', ''),
        'test': ('test.csv', ''),
        'url': '',
    },
    # GLUE publishes no labels of its test rows, so its dev set is our test split
    'sst2': {
        'columns': ('sentence', 'label'),
        'label_names': {'0': 'negative', '1': 'positive'},
        'rows_are_phrases': True,
        'train': ('train.tsv', '9f81648d4199384278b86e315dac217c'),
        'test': ('dev.tsv', '9f81648d4199384278b86e315dac217c'),
        'url': 'https://dl.fbaipublicfiles.com/glue/data/SST-2.zip#SST-2/{}',
    },
}


def find_raw(dataset, data_dir, test_file='', val_file=''):
    """
    The raw files of a data set -> {'train': path, 'val': path, 'test': path}.

    dataset is a name in DATASETS or the path of the training file. Files of a named one are looked
    for in data_dir, in the project's data/ and in $NANOSENTIMENT_RAW, and if they are in none of
    these downloaded into the first. test_file takes the place of the data set's own; without it
    a path has no 'test', and without val_file there is no 'val'. Raises download.Unreachable, and
    ValueError for a file that is missing and cannot be downloaded.
    """
    # train comes first, because it decides which labels there are
    if dataset in DATASETS:
        paths = {'train': find_file(dataset, 'train', data_dir)}
    else:
        paths = {'train': check_file(dataset)}

    if val_file:
        paths['val'] = check_file(val_file)
    if test_file:
        paths['test'] = check_file(test_file)
    elif dataset in DATASETS:
        paths['test'] = find_file(dataset, 'test', data_dir)
    return paths


def check_file(path):
    """The path of a user's own file, with ~ expanded. ValueError if there is no such file."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if find_extension(name) in KINDS)
        remedy = 'give one of its files'
        if names:
            remedy += f', such as {os.path.join(path, names[0])}'
        raise ValueError(f'{path} is a folder; {remedy}')
    if not os.path.isfile(path):
        raise ValueError(f'there is no file {path} in {os.getcwd()}; correct its path')
    return path


def find_file(dataset, split_name, data_dir):
    """One file of a named data set -> its path."""
    name, digest = DATASETS[dataset][split_name]
    folders = [data_dir, DATA_DIR, os.getenv('NANOSENTIMENT_RAW')]
    candidates = [os.path.join(folder, dataset, name) for folder in filter(None, folders)]
    for path in candidates:
        if os.path.exists(path):
            return path

    path = candidates[0]
    remedy = (
        f'save it as {path}, or let NANOSENTIMENT_RAW name a folder that holds {dataset}/{name}'
    )
    url = DATASETS[dataset]['url'].format(name)
    if not url:
        raise ValueError(
            f'{dataset}/{name} is missing, and has no address to download it from; {remedy}'
        )
    return fetch(url, path, digest, remedy)
