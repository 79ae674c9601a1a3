"""From a row of a table to its text and its label, alike for training, evaluation and use."""

from nanosentiment.labels import canonical_label, shorten
from nanosentiment.pairs import join_pair
from nanosentiment.tables import cell_text


def parse_columns(setting, known):
    """
    'title, body' -> ['title', 'body']. A column of a table may itself be called 'title, body':
    then, as `known` tells, it is that one column.
    """
    if setting in known:
        return [setting]
    return [name.strip() for name in setting.split(',')]


def find_columns(
    table,
    text_column,
    label_column,
    split_column='',
    group_column='',
    text_pair_column='',
    is_labelled=True,
):
    """
    {setting: the columns that it names}; ValueError if no row can have a text and a label.

    Example: {'text_column': ['title', 'body'], 'label_column': ['mood']}, and 'split_column',
    'group_column' and 'text_pair_column' only if there is one. Without labels there is no
    'label_column', and the only column of a table needs no text_column to name it.
    """
    path = table.path
    if table.kind == 'txt' and is_labelled:
        raise ValueError(
            f'{path} is read as plain text, which has no labels; save texts and labels as columns '
            'of a .csv, .tsv or .jsonl file, or set --delimiter if this file has columns'
        )
    if not table.is_json and not table.columns:
        raise ValueError(f'{path} is empty; is it the right file?')

    columns = {'text_column': parse_columns(text_column, table.columns)}
    if is_labelled:
        columns['label_column'] = [label_column]
    elif not text_column and len(table.columns) == 1:
        columns['text_column'] = list(table.columns)
    if split_column:
        columns['split_column'] = [split_column]
    if group_column:
        columns['group_column'] = [group_column]
    if text_pair_column:
        columns['text_pair_column'] = parse_columns(text_pair_column, table.columns)
    try:
        for setting, names in columns.items():
            check_columns(table, setting, names)
    except ValueError as error:
        # what was guessed of the file may be the cause, such as a header where there is none
        raise ValueError('; '.join([str(error), *table.notes])) from None
    check_label_column(columns)
    return columns


def check_label_column(columns):
    """ValueError if another setting names the column of the labels as well."""
    for label_column in columns.get('label_column', []):  # one, or none
        for setting in ('text_column', 'text_pair_column'):
            if label_column in columns.get(setting, []):
                raise ValueError(
                    f'{setting} and label_column both name {label_column!r}, so the text would '
                    'tell the label; set them to different columns'
                )
        if label_column in columns.get('group_column', []):
            raise ValueError(
                f'group_column and label_column both name {label_column!r}, so each label would '
                'be in one split only; set them to different columns'
            )


def check_columns(table, setting, columns):
    """
    ValueError if a table lacks one of the columns that --<setting> names.

    Rows of a JSON file may lack keys, so there a key is only missing if no row has it, which
    check_keys finds out.
    """
    if not table.is_json:
        check_known(table.path, table.columns, setting, columns)


def check_known(path, known, setting, columns):
    """ValueError if a column that --<setting> names is none of the known ones of a file."""
    for column in columns:
        if column not in known:
            what = f'there is no column {column!r}' if column else f'{setting} is not set'
            choices = shorten(known, 20)
            raise ValueError(f'{path}: {what}; set --{setting} to one of {choices}')


def check_keys(table, columns):
    """
    ValueError if no row of a JSON file has one of the columns, as find_columns returns them.

    Call it after all rows have been read, for only then all keys are known.
    """
    if not table.columns:
        return  # no row can be read, which the rejected rows tell
    for setting, names in columns.items():
        for name in names:
            if name not in table.columns:
                known = shorten(table.columns, 20)
                raise ValueError(
                    f'{table.path}: no row has the key {name!r}; set --{setting} to one of {known}'
                )


def row_text(row, columns, pair_columns=()):
    """
    The texts of these columns, one below the other, and the reason if that is no text.

    With pair_columns it is a pair, as pairs.join_pair makes it, and both texts are needed.
    """
    text, reason = join_columns(row, columns)
    if reason or not pair_columns:
        return text, reason
    second, reason = join_columns(row, pair_columns)
    if reason == 'no text':
        reason = 'no second text'
    if reason:
        return '', reason
    return join_pair(text, second), ''


def join_columns(row, columns):
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
