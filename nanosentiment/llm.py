"""
Asks a language model about texts that a run was tested on, and compares its answers with ours.

Any server with an OpenAI-compatible chat endpoint will do. Its key, if it needs one, comes from the
environment variable LLM_API_KEY. It must not appear in any file, message or other host's log.
"""

import hashlib
import json
import os
import random
import re
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from http.client import HTTPException

from configurator import printable
from nanosentiment.download import (
    is_private,
    open_request,
    read_response,
    split_password,
)
from nanosentiment.files import read_json_lines, to_json, write_whole
from nanosentiment.metrics import share_ci
from nanosentiment.predictions import read_predictions, write_table

COLUMNS = ('row', 'text', 'label', 'prediction', 'confidence', 'llm', 'answer')

LONGEST_WAIT_S = 120  # before the next request; whoever waits longer should know that he does
# a shorter key is no secret, and could be part of a label
MIN_SECRET_LENGTH = 8

# -----------------------------------------------------------------------------
# one question


def find_label(answer, labels):
    """
    The one label that an answer names, as a whole word in any case; '' if it is none or several.

    Of labels that contain each other, such as 'good' and 'very good', the longest counts.
    """
    # a reasoning model may name every label before it decides
    answer = re.sub(r'.*</think>', '', answer, flags=re.DOTALL)
    longest_first = sorted(labels, key=len, reverse=True)
    pattern = '|'.join(re.escape(label) for label in longest_first)
    words = re.findall(rf'(?<!\w)(?:{pattern})(?!\w)', answer, flags=re.IGNORECASE)
    words = {word.casefold() for word in words}
    named_labels = [label for label in labels if label.casefold() in words]
    if len(named_labels) == 1:
        return named_labels[0]
    return ''


def read_answer(response, url):
    """The text in a response of the chat endpoint. ValueError if it is something else."""
    try:
        completion = json.loads(response)
        return str(completion['choices'][0]['message']['content'] or '')
    except (ValueError, LookupError, TypeError):
        what = f'{url} does not answer with the JSON of a chat completion'
        raise ValueError(f'{what}; check --llm') from None


def ask(url, key, prompt, config):
    """
    The language model's answer to a prompt.

    Asks again where that may help: after a time-out, a broken connection, HTTP 408, 429 or 5xx.
    Otherwise, or after --llm_retries more requests, or if the server wishes a wait of more than
    LONGEST_WAIT_S, ValueError. A user and password in the url are sent as such, and not shown.
    """
    url, password_header = split_password(url)
    messages = [{'role': 'user', 'content': prompt}]
    body = {'model': config['llm_model'], 'messages': messages, 'temperature': 0}
    headers = {'Content-Type': 'application/json'}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    authorization = f'Bearer {key}' if key else password_header
    if authorization:
        # urllib would send an ordinary header to the target of a redirect as well
        request.add_unredirected_header('Authorization', authorization)
    seconds = config['llm_timeout']

    n_failures = 0
    while True:
        retry_after = ''
        try:
            with open_request(request, seconds) as response:
                answer = read_answer(read_response(response, seconds), url)
            # a server may send the key back
            if len(key) >= MIN_SECRET_LENGTH:
                answer = answer.replace(key, '***')
            return answer
        except urllib.error.HTTPError as error:
            trouble = f'HTTP {error.code}'
            may_pass = error.code in (408, 429) or error.code >= 500
            retry_after = error.headers.get('Retry-After', '')
        except (OSError, HTTPException) as error:
            trouble = f'no answer ({type(error).__name__})'
            may_pass = True

        n_failures += 1
        if not may_pass or n_failures > config['llm_retries']:
            remedy = 'check --llm, --llm_model and LLM_API_KEY, then run this again'
            raise ValueError(f'{url}: {trouble}; {remedy}: the answers so far are kept')
        # twice as long each time, and at least as long as the server wishes
        wait = config['llm_backoff'] * 2 ** (n_failures - 1)
        if re.fullmatch('[0-9]{1,9}', retry_after):
            wait = max(wait, int(retry_after))
        if wait > LONGEST_WAIT_S:
            what = f'{url}: {trouble}, and the next try would be in {wait:g} s'
            raise ValueError(f'{what}; run this again then: the answers so far are kept')
        print(f'{url}: {trouble}, again in {wait:g} s', file=sys.stderr)
        time.sleep(wait)


# -----------------------------------------------------------------------------
# answers are kept, because each may cost time and money


def read_cache(path):
    """llm_cache.jsonl -> {digest of the question: answer}, {} if there is no such file."""
    answers = {}
    for line in read_json_lines(path):
        if not isinstance(line, list) or [type(item) for item in line] != [str, str]:
            raise ValueError(f'{path} holds other things than answers; remove it')
        digest, answer = line
        answers[digest] = answer
    return answers


def write_cache(path, answers):
    """Writes llm_cache.jsonl: the old file stays until the new one is complete."""
    lines = [to_json(item) + '\n' for item in answers.items()]
    write_whole(path, ''.join(lines))


# -----------------------------------------------------------------------------
# all texts


def check_llm_settings(url, key, config):
    """ValueError if the settings or the key cannot work; the message must not show the key."""
    if not re.fullmatch('https?://[!-~]+', url):
        raise ValueError('--llm is not an address; give it as --llm=http://...')
    if not config['llm_model']:
        raise ValueError('no model is named; give --llm_model=...')
    if config['llm_rows'] not in ('errors', 'all'):
        raise ValueError(f'--llm_rows={config["llm_rows"]} is unknown; choose errors or all')
    if '{text}' not in config['llm_prompt']:
        raise ValueError('--llm_prompt has no {text}, in whose place each text goes; add it')
    if config['llm_n'] < 0:
        raise ValueError(f'--llm_n={config["llm_n"]} is negative; give a number of texts')
    if key and split_password(url)[1]:
        what = 'LLM_API_KEY is set, and the address of --llm has a password'
        raise ValueError(f'{what}; a request can carry one of the two, so unset the other')
    if re.search('[^!-~]', key):
        what = 'LLM_API_KEY holds a space or another character that no HTTP header may hold'
        raise ValueError(f'{what}; set it again, for --llm')


def choose_rows(folder, table, n):
    """
    n rows of a run's table, and its labels: of 'errors' the most confident ones, of 'predictions'
    rows drawn at random. The draw is the same each time, and a larger n only adds to it.
    """
    rows, labels, _ = read_predictions(folder, table)
    if table == 'predictions':
        random.Random(0).shuffle(rows)
    return rows[:n], labels


def ask_about_rows(folder, config):
    """
    Asks about texts of the run in `folder`, a Path: which label would the language model give?

    config holds the settings of report.py whose names begin with llm. Writes errors_llm.csv, or
    predictions_llm.csv for llm_rows='all', and llm_cache.jsonl with the answers that name a label,
    so that a second call asks only for the others.
    Returns the path of the table and what `summarize_answers` says.
    """
    key = os.getenv('LLM_API_KEY', '').strip()
    url = config['llm'].rstrip('/') + '/chat/completions'
    check_llm_settings(url, key, config)
    if key and not is_private(url):
        what = 'LLM_API_KEY is sent over http, where anybody on the way can read it'
        print(f'{what}; give an https address, or unset it', file=sys.stderr)
    table = 'errors' if config['llm_rows'] == 'errors' else 'predictions'
    rows, labels = choose_rows(folder, table, config['llm_n'])

    cache_path = folder / 'llm_cache.jsonl'
    answers = read_cache(cache_path)
    prompt_of_labels = config['llm_prompt'].replace('{labels}', ', '.join(labels))
    for i, row in enumerate(rows):
        prompt = prompt_of_labels.replace('{text}', row['text'])
        # another server, model or question has another digest
        question = f'{url}\n{config["llm_model"]}\n{prompt}'
        digest = hashlib.sha256(question.encode()).hexdigest()
        if digest in answers:
            row['answer'] = answers[digest]
            row['llm'] = find_label(row['answer'], labels)
        else:
            row['answer'] = ask(url, key, prompt, config)
            row['llm'] = find_label(row['answer'], labels)
            # an answer without a label is not worth keeping: another try may give one
            if row['llm']:
                answers[digest] = row['answer']
                write_cache(cache_path, answers)
            print(f'{i + 1} of {len(rows)} texts', file=sys.stderr)

    path = folder / f'{table}_llm.csv'
    columns = {}
    for name in COLUMNS:
        columns[name] = [row[name] for row in rows]
    write_table(path, columns, range(len(rows)))
    return path, summarize_answers(rows)


def summarize_answers(rows):
    """
    The rows of the table -> the counts of who was right, {label: answers that named it}, and how
    often each is right, with its 95 % interval. An answer without a label counts as wrong.
    """
    names = ('both_wrong', 'only_ours_right', 'only_llm_right', 'both_right', 'unparsed')
    summary = dict.fromkeys(names, 0)
    for row in rows:
        summary[who_is_right(row)] += 1
    summary['answers'] = dict(Counter(row['llm'] for row in rows if row['llm']).most_common())
    summary['n'] = len(rows)
    for name, column in (('llm', 'llm'), ('ours', 'prediction')):
        n_right = sum(row[column] == row['label'] for row in rows)
        summary[f'{name}_accuracy'] = n_right / max(len(rows), 1)
        summary[f'{name}_accuracy_ci'] = share_ci(n_right, len(rows))
    return summary


def print_answers(summary):
    """Shows what `summarize_answers` returns, in two lines."""
    parts = [f'{printable(label)} {n}' for label, n in summary['answers'].items()]
    parts.append(f'no label, or several {summary["unparsed"]}')
    print(f'answers of the language model: {", ".join(parts)}')
    parts = []
    for name, whose in (('llm', 'language model'), ('ours', 'ours')):
        accuracy = summary[f'{name}_accuracy']
        low, high = summary[f'{name}_accuracy_ci']
        parts.append(f'{whose} {accuracy:.3f} [{low:.3f}, {high:.3f}]')
    print(f'right in {summary["n"]} texts: {", ".join(parts)}')


def who_is_right(row):
    """The count to which a row of the table belongs."""
    if not row['llm']:
        return 'unparsed'
    our_model_is_right = row['prediction'] == row['label']
    llm_is_right = row['llm'] == row['label']
    if our_model_is_right and llm_is_right:
        return 'both_right'
    if our_model_is_right:
        return 'only_ours_right'
    if llm_is_right:
        return 'only_llm_right'
    return 'both_wrong'
