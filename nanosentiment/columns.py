"""From a row of a table to its text and its label, alike for training, evaluation and use."""

from nanosentiment.labels import canonical_label, shorten
from nanosentiment.tables import cell_text


def parse_columns(setting, known):
    """
    'title, body' -> ['title', 'body']. A column of a table may itself be called 'title, body':
    then, as `known` tells, it is that one column.
    """
    if setting in known:
        return [setting]
    return [name.strip() for name in setting.split(',')]


def check_columns(table, setting, columns):
    """
    ValueError if a table lacks one of the columns that --<setting> names.

    Rows of a JSON file may lack keys, so there a key is only missing if no row has it: prepare.py
    then finds no usable row, and says which keys there are.
    """
    if table.is_json:
        return
    for column in columns:
        if column not in table.columns:
            known = shorten(table.columns, 20)
            raise ValueError(
                f'{table.path}: there is no column {column!r}; set --{setting} to one of {known}'
            )


def row_text(row, columns):
    """The texts of these columns, one below the other, and the reason if that is no text."""
    parts = []
    for column in columns:
        part, reason = cell_text(row.get(column))
        if reason:
            return '', f'{column} is {reason}'
        parts.append(part.strip())
    text = '\n'.join(filter(None, parts))
    if not text:
        return '', 'no text'
    return text, ''


def row_label(row, column, label_names):
    """The label, renamed as label_names says, and the reason if there is none."""
    label, reason = cell_text(row.get(column))
    if reason:
        return '', f'{column} is {reason}'
    label = canonical_label(label)
    if not label:
        return '', 'no label'
    return label_names.get(label, label), ''
