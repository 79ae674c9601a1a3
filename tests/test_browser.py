"""report.html: what is in it, and what a reader sees. python -m pytest tests/test_browser.py"""

import base64
import csv
import json
import re
import time
import zlib

import numpy as np
import pytest
from browser import severe_messages
from conftest import ROOT, in_time, run
from evaluated_run import LABELS, write_run

from nanosentiment import browser
from nanosentiment.browser import MAX_SUSPECTS, make_page, pack, write_browser
from nanosentiment.files import read_json_lines
from nanosentiment.predictions import quote_formula, read_predictions

pytest_plugins = 'browser'

ATTACK = '</script><script>alert(1)</script><img src=x onerror=alert(2)>'

# -----------------------------------------------------------------------------
# runs


def set_column(folder, column, values):
    """Writes other values into a column of predictions.csv."""
    path = folder / 'predictions.csv'
    with open(path, newline='', encoding='utf-8') as f:
        header, *rows = csv.reader(f)
    for row, value in zip(rows, values, strict=True):
        row[header.index(column)] = value
    with open(path, 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([header, *rows])


def write_page(folder, runs=None, parent=None):
    """Writes report.html of the files in a folder -> its path."""
    log = read_json_lines(folder / 'metrics.jsonl')
    return write_browser(folder, runs or [folder], parent or folder, 'my run', log)


def read_page(path):
    """What report.html holds as data."""
    text = path.read_text(encoding='utf-8')
    data = re.search(r'<script id="data" type="text/plain">(.*?)</script>', text, re.DOTALL)
    return unpack(data[1])


def unpack(packed):
    """What browser.pack has packed."""
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def write_explanations(folder, rows):
    """Each word of these rows of predictions.csv is a piece; the weights are 1, -2, 3, ..."""
    lines = []
    for row in rows:
        pieces = re.findall(r'\s*\S+\s*', row['text'])
        weights = [(-1) ** k * (k + 1) for k in range(len(pieces))]
        line = {'row': int(row['row']), 'label': row['prediction'], 'kind': 'words'}
        lines.append(json.dumps(line | {'pieces': pieces, 'weights': weights}))
    (folder / 'explanations.jsonl').write_text('\n'.join(lines) + '\n')


def write_suspects(folder, n):
    """n suspects, the first with a text that a spreadsheet would run; none is in write_run."""
    header = ['row', 'text', 'label', 'suggested', 'p_label', 'p_suggested', 'fold']
    rows = [[1000 + i, f'text {i}', 'neutral', 'positive', 0.01, 0.98, 1 + i % 5] for i in range(n)]
    rows[0][1] = quote_formula('=1+1')
    with open(folder / 'suspects.csv', 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([header, *rows])


# -----------------------------------------------------------------------------
# the file


def test_torch_is_not_imported():
    code = 'import sys; sys.modules["torch"] = None; import nanosentiment.browser'
    run(['-c', code], cwd=ROOT)


def test_a_text_cannot_end_the_element_of_the_data(tmp_path):
    write_run(tmp_path)
    set_column(tmp_path, 'text', [ATTACK + '\u2028\u2029'] * 30)
    path = write_page(tmp_path)
    text = path.read_text(encoding='utf-8')
    assert text.count('</script>') == 2  # of the data and of the script
    assert '\u2028' not in text
    assert read_page(path)['texts']['text'][0] == ATTACK + '\u2028\u2029'


def test_half_of_a_surrogate_pair_can_be_written():
    assert unpack(pack(['\ud800'])) == ['?']


def test_words_of_the_template_in_a_text_stay(tmp_path):
    write_run(tmp_path)
    words = '/* report.css */ /* report.js */ the data of the run'
    set_column(tmp_path, 'text', [words] * 30)
    assert read_page(write_page(tmp_path))['texts']['text'][0] == words


def test_the_page_loads_nothing():
    """Its Content-Security-Policy forbids it. Of the addresses in it none is one of a file."""
    page = make_page({})
    assert "default-src 'none'" in page
    assert set(re.findall(r'https?://([\w.-]+)', page)) == {'jfly.uni-koeln.de', 'www.w3.org'}
    assert not re.search('src=|@import|url\\(|innerHTML', page)


def test_the_scores_are_those_of_the_evaluation(tmp_path):
    evaluation = write_run(tmp_path)
    data = read_page(write_page(tmp_path))
    assert data['name'] == 'my run'
    for name in ('accuracy', 'accuracy_ci', 'macro_f1', 'macro_f1_ci', 'nll', 'temperature'):
        assert data['scores'][name] == evaluation[name]
    assert data['baselines'] == evaluation['baseline']
    assert data['confusion'] == evaluation['confusion']
    assert [scores['support'] for scores in data['label_scores']] == [10, 10, 10]
    assert data['curves']['best_epoch'] == 1.5
    assert data['curves']['val_loss'] == [[0.5, 2.5], [1, 1.5], [1.5, 0.5], [2, 1.5]]


def test_the_command_names_no_folders(tmp_path):
    """A report is sent to others."""
    evaluation = write_run(tmp_path)
    evaluation['command'] = 'python train.py --dataset=/home/ann/mine.csv'
    content = browser.about_run([evaluation], 30)
    assert content['command'] == 'python train.py --dataset=mine.csv'


def test_without_evaluation_json_the_scores_are_those_of_the_predictions(tmp_path):
    write_run(tmp_path, with_evaluation=False)
    data = read_page(write_page(tmp_path))
    assert data['scores']['accuracy'] == 0.8
    assert 'ece_calibrated' not in data['scores']
    assert data['baselines'] == {}
    assert data['curves']['best_epoch'] is None


def test_without_other_files_there_are_no_explanations_suspects_and_runs(tmp_path):
    write_run(tmp_path)
    (tmp_path / 'metrics.jsonl').unlink()
    data = read_page(write_page(tmp_path))
    assert data['explanations'] == {}
    assert data['suspects'] is None
    assert data['runs'] == []
    assert data['curves']['val_loss'] == []


def test_probabilities_are_calibrated_and_add_up(tmp_path):
    write_run(tmp_path)
    data = read_page(write_page(tmp_path))
    probabilities = np.reshape(data['probabilities'], (30, 3)) / browser.PROBABILITY_UNITS
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=2e-4)
    np.testing.assert_allclose(probabilities.max(axis=1), data['texts']['confidence'], atol=1e-4)


def test_texts_by_length_and_tag_are_all_texts(tmp_path):
    write_run(tmp_path, n=200)
    tags = ['long rare' if i % 4 == 0 else '' for i in range(200)]
    set_column(tmp_path, 'tags', tags)
    data = read_page(write_page(tmp_path))
    assert sum(bin['n'] for bin in data['lengths']) == 200
    assert sum(bin['right'] for bin in data['lengths']) == 160
    assert [(tag['name'], tag['n']) for tag in data['tags']] == [('long', 50), ('rare', 50)]


def test_a_label_that_the_run_does_not_know_has_a_row_but_no_probability(tmp_path):
    write_run(tmp_path)
    rows = read_predictions(tmp_path)[0]
    set_column(tmp_path, 'label', ['spam'] + [row['label'] for row in rows[1:]])
    set_column(tmp_path, 'loss', ['inf'] + [row['loss'] for row in rows[1:]])
    data = read_page(write_page(tmp_path))
    assert data['labels'] == [*LABELS, 'spam']
    assert data['n_known'] == 3
    assert len(data['probabilities']) == 90
    assert data['texts']['loss'][0] is None
    assert data['label_scores'][3]['support'] == 1


def test_pieces_are_lengths_as_javascript_counts_them(tmp_path):
    """An emoji is one letter to Python and two to JavaScript. Rows that are not there are left."""
    write_run(tmp_path)
    set_column(tmp_path, 'text', ['so 🙂 good'] * 30)
    rows = read_predictions(tmp_path)[0]
    other_row = dict(rows[0], row='999')
    write_explanations(tmp_path, [rows[4], other_row])
    explanations = read_page(write_page(tmp_path))['explanations']
    assert list(explanations) == ['4']
    assert explanations['4']['lengths'] == [3, 3, 4]
    assert explanations['4']['weights'] == [100, -200, 300]


@pytest.mark.parametrize(
    'line, mistake',
    [
        ({'row': 1}, "lacks 'label'"),
        ({'row': 1, 'label': 'a', 'kind': 'words', 'pieces': ['x'], 'weights': [1]}, 'row 1'),
        ({'row': 1, 'label': 'a', 'kind': 'words', 'pieces': ['x'], 'weights': ['1']}, 'remove it'),
    ],
)
def test_explanations_of_other_texts_are_one_line(tmp_path, line, mistake):
    write_run(tmp_path)
    (tmp_path / 'explanations.jsonl').write_text(json.dumps(line) + '\n')
    with pytest.raises(ValueError, match=f'explanations.jsonl.*{mistake}') as error:
        write_page(tmp_path)
    assert '\n' not in str(error.value)


def test_suspects_are_read_from_the_folder_of_the_folds(tmp_path):
    write_run(tmp_path / 'fold-1')
    write_suspects(tmp_path, MAX_SUSPECTS + 7)
    data = read_page(write_page(tmp_path / 'fold-1', parent=tmp_path))
    assert data['suspects']['text'][0] == '=1+1'
    assert len(data['suspects']['row']) == MAX_SUSPECTS
    assert data['suspects']['n'] == MAX_SUSPECTS + 7


def test_suspects_that_are_older_than_the_predictions_are_refused(tmp_path):
    """Labels may have been corrected, and the folds trained anew, since they were found."""
    write_run(tmp_path)
    row = read_predictions(tmp_path)[0][7]
    for text, label in ((row['text'], 'another'), ('another', row['label'])):
        with open(tmp_path / 'suspects.csv', 'w', newline='', encoding='utf-8') as f:
            csv.writer(f).writerow(browser.SUSPECT_COLUMNS)
            csv.writer(f).writerow([7, quote_formula(text), label, 'positive', 0.1, 0.9, 1])
        with pytest.raises(ValueError, match='suspects.csv is older .*--suspects=True'):
            write_page(tmp_path)


def test_damaged_suspects_are_one_line(tmp_path):
    write_run(tmp_path)
    (tmp_path / 'suspects.csv').write_text('row,text\nx,y\n')
    with pytest.raises(
        ValueError, match='suspects.csv: row 1 does not fit the header; write it again'
    ):
        write_page(tmp_path)


def test_all_seeds_are_beside_each_other(tmp_path):
    """One that was not evaluated is left out."""
    runs = [tmp_path / f'seed-{seed}' for seed in (1, 2, 3)]
    for seed, folder in enumerate(runs):
        write_run(folder, seed=seed, with_evaluation=seed < 2)
    data = read_page(write_page(runs[0], runs, tmp_path))
    assert [scores['name'] for scores in data['runs']] == ['seed-1', 'seed-2']


def test_folds_have_one_page_with_the_texts_of_all(tmp_path):
    """Each row of the training file was predicted by one of them, with its own temperature."""
    runs = [tmp_path / 'fold-1', tmp_path / 'fold-2']
    for k, folder in enumerate(runs):
        evaluation = write_run(folder, n=30, seed=k, temperature=1.0 + k)
        table = [[10 - k, k, 0], [5, 5, 0], [0, 0, 10]]
        evaluation['baseline'] = {'majority': None, 'bag_of_words': {'confusion': table}}
        (folder / 'evaluation.json').write_text(json.dumps(evaluation))
        set_column(folder, 'row', range(30 * k, 30 * k + 30))
    write_explanations(runs[1], read_predictions(runs[1])[0][:1])
    path = write_page(runs[0], runs, tmp_path)
    assert path == tmp_path / 'report.html'
    data = read_page(path)
    assert data['texts']['row'] == list(range(60))
    assert list(data['explanations']) == ['30']
    assert sum(map(sum, data['confusion'])) == 60
    assert data['scores']['accuracy'] == pytest.approx(0.8), 'every fifth is wrong'
    assert 'temperature' not in data['scores']
    assert list(data['baselines']) == ['bag_of_words']
    assert data['baselines']['bag_of_words']['accuracy'] == pytest.approx(49 / 60)
    confidence = np.array(data['probabilities']).reshape(60, 3).max(axis=1) / 10_000
    assert confidence == pytest.approx(np.array(data['texts']['confidence']), abs=2e-4)


def test_folds_of_other_data_have_no_page_together(tmp_path):
    runs = [tmp_path / 'fold-1', tmp_path / 'fold-2']
    write_run(runs[0])
    write_run(runs[1], labels=['positive', 'negative'])
    with pytest.raises(ValueError, match='fold-2 has other labels than .*fold-1;'):
        write_page(runs[0], runs, tmp_path)


def test_predictions_without_texts_are_one_line(tmp_path):
    write_run(tmp_path)
    path = tmp_path / 'predictions.csv'
    path.write_text(path.read_text(encoding='utf-8').split('\n')[0] + '\n')
    with pytest.raises(ValueError, match='holds no texts; run python evaluate.py'):
        write_page(tmp_path)


def test_damaged_predictions_are_one_line(tmp_path):
    write_run(tmp_path)
    set_column(tmp_path, 'tokens', ['many'] * 30)
    with pytest.raises(ValueError, match='predictions.csv cannot be read .*; run python'):
        write_page(tmp_path)


def test_a_long_log_is_thinned_out():
    log = [{'iter': i, 'epoch': i / 100, 'loss': 0.5} for i in range(12345)]
    points = browser.learning_curves(log, [{}])['loss']
    assert 900 < len(points) <= browser.MAX_CURVE_POINTS


# -----------------------------------------------------------------------------
# size and time


def write_long_texts(folder, n, n_label):
    """A run of n texts of 1,200 characters."""
    labels = [f'label number {i}' for i in range(n_label)]
    write_run(folder, n=n, labels=labels)
    set_column(folder, 'text', [f'{i} is the number of this text. ' * 40 for i in range(n)])


def test_a_thousand_long_texts_of_77_labels_are_less_than_two_megabytes(tmp_path):
    write_long_texts(tmp_path, 1000, 77)
    assert write_page(tmp_path).stat().st_size < 2e6


def test_ten_thousand_texts_take_less_than_two_seconds(tmp_path):
    write_long_texts(tmp_path, 10_000, 3)
    begin = time.perf_counter()
    write_page(tmp_path)
    in_time(time.perf_counter() - begin, 2)


# -----------------------------------------------------------------------------
# in a browser


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """The address of a report with everything in it: 40 texts, of which 8 are errors."""
    parent = tmp_path_factory.mktemp('pages') / 'seeds'
    runs = [parent / 'seed-1', parent / 'seed-2']
    for folder in runs:
        write_run(folder, n=40)
    texts = [f'this is text {i} and it says nothing' for i in range(40)]
    texts[3] = ATTACK
    texts[12] = 'so 🙂 good'
    set_column(runs[0], 'text', texts)
    write_explanations(runs[0], read_predictions(runs[0])[0][12:13])
    write_suspects(parent, 9)
    path = write_page(runs[0], runs, parent)
    return path.as_uri()


class Reader:
    """What a person does with the page, and sees."""

    def __init__(self, driver):
        self.driver = driver

    def visit(self, address):
        # a new hash alone would not load the page anew
        self.driver.get('about:blank')
        self.driver.get(address)

    def find(self, selector):
        return self.driver.find_element('css selector', selector)

    def click(self, selector):
        self.wait(lambda: self.find(selector).click() or True)

    def press(self, *keys):
        """Presses keys, one after the other, wherever the focus is."""
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            self.driver.switch_to.active_element.send_keys(getattr(Keys, key, key))

    def text(self, selector):
        """The text of an element, '' if it is not to be seen."""
        return self.wait(lambda: [self.find(selector).text])[0]

    def count(self, selector):
        return len(self.driver.find_elements('css selector', selector))

    def hash(self):
        return self.driver.current_url.partition('#')[2]

    def focus(self):
        return self.driver.switch_to.active_element.get_attribute('id')

    def wait(self, condition):
        """Waits until a function of no arguments gives something true, ten seconds at most."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        # an element of the list may be drawn anew after it was found
        stale = [StaleElementReferenceException]
        wait = WebDriverWait(self.driver, 10, poll_frequency=0.05, ignored_exceptions=stale)
        return wait.until(lambda driver: condition())


@pytest.fixture
def reader(chrome):
    """A reader, at whose end the console must show no error."""
    severe_messages(chrome)  # those of tests before
    chrome.set_window_size(1400, 900)
    yield Reader(chrome)
    assert severe_messages(chrome) == []


def test_the_first_view_has_the_scores(reader, page):
    reader.visit(page)
    assert reader.text('h1') == 'my run'
    assert '0.800' in reader.text('#tiles')
    assert 'bag of words' in reader.text('#baselines')
    assert reader.text('#runs-title') == 'All seeds'
    assert 'seed-2' in reader.text('#runs')
    assert 'train.py' in reader.text('#command')
    assert reader.count('#curves svg.plot[role=img][aria-label]') == 2
    assert reader.count('#reliability svg.plot[role=img][aria-label]') == 1


def test_a_cell_and_a_head_filter_the_list(reader, page):
    reader.visit(page + '#tab=texts')
    assert reader.text('#count').startswith('40 texts, 32 right')
    reader.click('button[data-truth="0"][data-guess="1"]')
    reader.wait(lambda: reader.text('#count').startswith('3 of 40 texts, 0 right'))
    assert reader.count('#list .option.wrong') == 3
    reader.click('button[data-filter=guess][data-guess="1"]')  # it is on already
    reader.wait(lambda: reader.text('#count').startswith('14 of 40 texts'))


def test_a_length_and_a_tag_filter_the_list(reader, page):
    reader.visit(page + '#tab=texts')
    reader.click('#lengths button')
    reader.wait(lambda: 'length=' in reader.hash())
    n = int(reader.text('#lengths button .muted'))
    assert reader.text('#count').startswith(f'{n} of 40 texts' if n < 40 else '40 texts')
    reader.click('.chip.clear')
    reader.wait(lambda: 'length=' not in reader.hash())
    reader.click('#tags button')
    reader.wait(lambda: 'tag=long' in reader.hash())


def test_typing_finds_texts_and_back_leads_to_all(reader, page):
    """One step back, although each letter was searched."""
    reader.visit(page + '#tab=texts')
    reader.press('/')
    assert reader.focus() == 'search'
    reader.press('TEXT 2')
    reader.wait(lambda: reader.text('#count').startswith('11 of 40 texts'))  # 2, 20, ... 29
    reader.press('7')
    reader.wait(lambda: reader.text('#count').startswith('1 of 40 texts'))
    assert reader.text('#list mark') == 'text 27'
    reader.driver.back()
    reader.wait(lambda: reader.text('#count').startswith('40 texts'))
    assert reader.find('#search').get_attribute('value') == ''


def test_a_search_may_hold_any_characters(reader, page):
    reader.visit(page + '#tab=texts')
    reader.find('#search').send_keys('(script)[ .*+?^$|\\ - {')
    reader.wait(lambda: reader.text('#count').startswith('0 of 40 texts'))
    assert 'No text passes' in reader.text('#list')


def test_the_list_is_sorted_up_and_down(reader, page):
    reader.visit(page + '#tab=texts&sort=row')
    assert reader.text('#option-0').startswith('this is text 0')
    reader.click('#sort [data-sort=row]')
    reader.wait(lambda: reader.text('#option-0').startswith('this is text 39'))
    reader.click('#sort [data-sort=confidence]')
    reader.wait(lambda: 'sort=-confidence' in reader.hash())
    shown = [reader.text(f'#option-{i} .confidence') for i in range(5)]
    assert shown == sorted(shown, reverse=True)


def test_a_text_is_opened_and_closed_by_keys(reader, page):
    reader.visit(page + '#tab=texts&sort=row')
    reader.press('ARROW_DOWN', 'ARROW_DOWN', 'ARROW_UP')
    assert reader.find('#option-1').get_attribute('aria-selected') == 'true'
    assert reader.focus() == 'list'
    reader.press('ENTER')
    reader.wait(lambda: reader.text('#detail h2') == 'Row 1')
    assert reader.text('.whole-text') == 'this is text 1 and it says nothing'
    assert reader.count('.bars li') == 3
    reader.press('ARROW_DOWN')  # the open text follows
    reader.wait(lambda: reader.text('#detail h2') == 'Row 2')
    reader.press('ESCAPE')
    reader.wait(lambda: not reader.find('#detail').is_displayed())
    assert reader.focus() == 'list'


def test_back_closes_a_text_that_was_clicked(reader, page):
    reader.visit(page + '#tab=texts&sort=row')
    reader.click('#option-2')
    reader.wait(lambda: reader.text('#detail h2') == 'Row 2')
    reader.click('[aria-label="next text"]')
    reader.wait(lambda: reader.text('#detail h2') == 'Row 3')
    reader.driver.back()
    reader.wait(lambda: not reader.find('#detail').is_displayed())
    assert reader.hash() == 'tab=texts&sort=row'


def test_an_address_opens_the_same_view(reader, page):
    """Filters, search, order and the open text."""
    reader.visit(page + '#tab=texts')
    reader.click('button[data-filter=truth][data-truth="1"]')
    reader.find('#search').send_keys('text')
    reader.wait(lambda: 'search=text' in reader.hash())
    reader.click('#sort [data-sort=margin]')
    reader.click('#option-3')
    reader.wait(lambda: 'open=' in reader.hash())
    address = reader.driver.current_url
    views = []
    for _ in range(2):
        selectors = ('#count', '#chips', '#list', '#detail')
        views.append([reader.text(selector) for selector in selectors])
        views[-1].append(reader.find('#search').get_attribute('value'))
        reader.visit(address)
    assert views[0] == views[1]


def test_what_an_address_asks_in_vain_is_left_out(reader, page):
    reader.visit(page + '#tab=none&sort=none&open=777&length=x')
    assert reader.find('#scores').is_displayed()
    reader.visit(page + '#tab=texts&sort=constructor&open=777&length=x')
    assert reader.text('#count').startswith('40 texts')
    assert not reader.find('#detail').is_displayed()


def test_markup_in_a_text_is_shown_as_text(reader, page):
    reader.visit(page + '#tab=texts&sort=row&open=3')
    assert reader.text('.whole-text') == ATTACK
    assert reader.text('#option-3 .text') == ATTACK
    assert reader.count('img') == 0


def test_pieces_are_coloured_by_weight(reader, page):
    reader.visit(page + '#tab=texts&open=12')
    assert reader.text('.whole-text') == 'so 🙂 good'
    pieces = reader.driver.find_elements('css selector', '.whole-text .piece')
    assert [piece.get_attribute('title') for piece in pieces] == ['+1.00', '−2.00', '+3.00']
    assert [piece.get_attribute('class') for piece in pieces] == [
        'piece for',
        'piece against',
        'piece for',
    ]
    assert '+3.00' in reader.text('.heaviest li')


def test_suspects_have_a_tab(reader, page):
    reader.visit(page)
    reader.click('#tab-suspects')
    reader.wait(lambda: reader.text('#count') == '9 suspects')
    assert reader.text('#option-0 .text') == '=1+1'
    reader.click('#option-1')
    reader.wait(lambda: reader.text('#detail h2') == 'Row 1001')
    assert 'suggested' in reader.text('#detail .facts')


def test_a_report_without_suspects_has_no_such_tab(reader, tmp_path):
    write_run(tmp_path)
    reader.visit(write_page(tmp_path).as_uri() + '#tab=suspects')
    assert not reader.find('#tab-suspects').is_displayed()
    assert reader.find('#scores').is_displayed()


@pytest.mark.parametrize(
    'labels',
    [
        ['only one'],
        [f'a rather long name of label {i}' for i in range(77)],
        ['一' * 40, 'ا' * 40, '<b>&amp;', 'long ' * 8],
    ],
)
@pytest.mark.parametrize('width', [360, 1400])
def test_the_page_is_not_wider_than_the_screen(reader, tmp_path, labels, width):
    """On a phone, too, and with any number and length of labels."""
    write_run(tmp_path, n=154, labels=labels)
    size = {'width': width, 'height': 800, 'deviceScaleFactor': 1, 'mobile': width < 500}
    reader.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    address = write_page(tmp_path).as_uri()
    for view in ('#tab=scores', '#tab=texts', '#tab=texts&open=5'):
        reader.visit(address + view)
        script = 'return document.documentElement.scrollWidth - window.innerWidth'
        assert reader.driver.execute_script(script) <= 0
    reader.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_on_a_phone_the_open_text_covers_the_list_until_escape(reader, page):
    size = {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': True}
    reader.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    reader.visit(page + '#tab=texts&sort=row')
    reader.click('#option-1')
    reader.wait(lambda: reader.focus() == 'detail')
    assert reader.find('#detail').rect['width'] == 360
    reader.press('ESCAPE')
    reader.wait(lambda: reader.focus() == 'list')
    reader.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_only_the_rows_on_the_screen_exist(reader, tmp_path):
    write_run(tmp_path, n=5000)
    reader.visit(write_page(tmp_path).as_uri() + '#tab=texts&sort=row')
    assert reader.count('.option') < 60
    reader.press('END')
    reader.wait(lambda: reader.count('#option-4999') == 1)
    assert reader.count('.option') < 60
    assert reader.find('#option-4999').get_attribute('aria-posinset') == '5000'


def test_paper_gets_the_first_hundred_texts(reader, tmp_path):
    write_run(tmp_path, n=500)
    reader.visit(write_page(tmp_path).as_uri() + '#tab=texts')
    reader.driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert reader.count('#list [role=option]') == 100
    reader.driver.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert reader.count('#list [role=option]') < 60
