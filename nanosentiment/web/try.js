// The page to try a run. It asks the server that has sent it, and stores nothing: what is listed is
// gone when the page is closed. Texts and labels are data, so they are only set as textContent.
'use strict';

const CLASSIFY_AFTER_MS = 400; // without a key
// A longer text takes a while to explain, so the words come only when somebody asks for them.
const EXPLAIN_WHILE_TYPING = 300; // characters
const MAX_BARS = 8;
const LEAST_STRENGTH = 0.08; // of a word that is coloured, compared with the strongest one
const MAX_HISTORY = 50;
const PAIR_MARK = '\ufdd0'; // stands between the two texts of a pair, see pairs.py

const EXAMPLES = [
  'I love it, thank you so much!',
  'It broke after two days and nobody answers my calls. Terrible!',
  'The parcel arrived on Tuesday.',
  'Not worth the money, very disappointed.',
  'The screen is beautiful, but the battery is a huge disappointment.',
];
const PAIR_EXAMPLES = [
  ['Where is my parcel?', 'It was delivered on Tuesday.'],
  ['Two dogs are playing in the snow.', 'There are animals outside.'],
  ['The shop opens at nine.', 'The shop is closed all day.'],
];

// what /about tells of the run
let about = { labels: [], has_pairs: false, threshold: 0, max_table_bytes: 0 };

function element(id) {
  return document.getElementById(id);
}

/** A new element with a class and a text. */
function make(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** Shows a line, or hides its element if there is none. */
function setLine(id, line) {
  element(id).textContent = line;
  element(id).hidden = line === '';
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

// -----------------------------------------------------------------------------
// the server

/** Sends a request -> the response. An error has the server's own line as its message. */
async function send(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === 'AbortError') {
      throw error;
    }
    throw new Error('The server does not answer; see whether it still runs in its terminal.');
  }
  if (response.ok) {
    return response;
  }
  const content = await response.json();
  const error = new Error(content.error);
  error.columns = content.columns;
  throw error;
}

/** A text, or a pair as a list -> its answer. */
async function askForAnswer(text, isExplained, signal) {
  const response = await send(isExplained ? '/classify?explain=1' : '/classify', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify([text]),
    signal,
  });
  const answers = await response.json();
  return answers[0];
}

// -----------------------------------------------------------------------------
// the text

/** What is in the text box; of a run with pairs, both texts as a list. */
function currentText() {
  const first = element('first').value;
  if (about.has_pairs) {
    return [first, element('second').value];
  }
  return first;
}

function setText(text) {
  const [first, second] = [text].flat();
  element('first').value = first;
  element('second').value = second ?? '';
}

/** Of a pair both texts are needed. */
function isBlank(text) {
  return [text].flat().some((part) => part.trim() === '');
}

function showAsLine(text) {
  return [text].flat().join(' | ');
}

// -----------------------------------------------------------------------------
// asking

// Aborted as soon as the text changes, so that no answer of an older text is shown.
let newest = new AbortController();
let timer = 0;

/** Forgets the answer on the page and the one that is still to come. */
function forgetAnswer() {
  clearTimeout(timer);
  newest.abort();
  newest = new AbortController();
  element('answer').hidden = true;
  setLine('error', '');
}

/** Classifies what is in the text box. If it is asked for, it is listed and always explained. */
async function classify(isAskedFor) {
  forgetAnswer();
  const text = currentText();
  if (isBlank(text)) {
    return;
  }
  const { signal } = newest;
  try {
    const answer = await askForAnswer(text, false, signal);
    showAnswer(answer);
    if (isAskedFor) {
      remember(answer);
    }
    if (isAskedFor || showAsLine(text).length <= EXPLAIN_WHILE_TYPING) {
      await explain(answer, signal);
    } else {
      setLine('words-status', 'Classify shows which words carried the label of this long text.');
    }
  } catch (error) {
    if (error.name !== 'AbortError') {
      setLine('error', error.message);
    }
  }
}

/** Adds the explanation to an answer that is shown. */
async function explain(answer, signal) {
  setLine('words-status', 'Each word is left out in turn ...');
  try {
    const explained = await askForAnswer(answer.text, true, signal);
    answer.explanation = explained.explanation;
    showExplanation(answer);
  } catch (error) {
    if (error.name === 'AbortError') {
      throw error;
    }
    setLine('words-status', error.message);
  }
}

// -----------------------------------------------------------------------------
// the answer

function showAnswer(answer) {
  element('label').textContent = answer.label;
  element('probability').textContent = percent(answer.probability);
  showRemarks(answer);
  showBars(element('bars'), barsOfAnswer(answer));
  showExplanation(answer);
  element('answer').hidden = false;
}

/** The most probable label, also where the answer is 'uncertain'. */
function bestLabel(answer) {
  const labels = Object.keys(answer.probabilities);
  return labels.reduce((best, label) =>
    answer.probabilities[label] > answer.probabilities[best] ? label : best,
  );
}

function showRemarks(answer) {
  const remarks = [];
  if (answer.probability < about.threshold) {
    const least = percent(about.threshold);
    remarks.push(`Below ${least}, so no label is given. The nearest is ${bestLabel(answer)}.`);
  }
  if (answer.truncated) {
    remarks.push('Only a part was read, because the text is too long for the model.');
  }
  setLine('remarks', remarks.join(' '));
}

/** The probabilities, in the order of the labels; of many labels the largest ones. */
function barsOfAnswer(answer) {
  const best = bestLabel(answer);
  // not Object.keys(answer.probabilities), which puts numbers first
  let bars = about.labels.map((label) => ({
    label,
    share: answer.probabilities[label],
    number: percent(answer.probabilities[label]),
    isBest: label === best,
  }));
  if (bars.length > MAX_BARS) {
    bars.sort((bar, other) => other.share - bar.share);
    bars = bars.slice(0, MAX_BARS);
  }
  return bars;
}

function showBars(list, bars) {
  list.replaceChildren();
  for (const { label, share, number, isBest } of bars) {
    const item = make('li', isBest ? 'best' : '', '');
    const track = make('div', 'track', '');
    const fill = make('div', 'fill', '');
    fill.style.setProperty('--share', share);
    track.append(fill);
    item.append(make('bdi', '', label), track, make('span', 'number', number));
    list.append(item);
  }
}

// -----------------------------------------------------------------------------
// which words carried the label

const KINDS = { words: 'Words', turns: 'Turns', sentences: 'Sentences' };

function showExplanation(answer) {
  const { explanation } = answer;
  element('words-shown').hidden = !explanation;
  element('words-title').textContent = KINDS[explanation?.kind ?? 'words'];
  setLine('words-status', '');
  if (!explanation) {
    return;
  }
  const { pieces, weights } = explanation;
  const largest = Math.max(...weights.map(Math.abs));
  const words = element('words');
  words.replaceChildren();
  for (const [i, piece] of pieces.entries()) {
    if (piece === PAIR_MARK) {
      words.append(' | ');
    } else {
      words.append(...makeWord(piece, weights[i], largest));
    }
  }
  element('legend-label').textContent = explanation.label;
  setLine('strongest', describeStrongest(pieces, weights));
}

/** A piece -> the nodes of its white space and its word, in the colour of its weight. */
function makeWord(piece, weight, largest) {
  const word = piece.trim();
  const strength = Math.abs(weight) / largest;
  if (word === '' || !(strength >= LEAST_STRENGTH)) {
    return [piece]; // strength is NaN if no word has a weight
  }
  const begin = piece.indexOf(word);
  const mark = make('mark', weight > 0 ? 'for' : 'against', word);
  mark.style.setProperty('--strength', strength);
  mark.title = `${signed(weight)} log-odds`;
  return [piece.slice(0, begin), mark, piece.slice(begin + word.length)];
}

function signed(weight) {
  const sign = weight > 0 ? '+' : '\u2212';
  return sign + Math.abs(weight).toFixed(2);
}

/** 'Most for it: never +5.52, arrived. +1.30' and a line against it, at most three words of each. */
function describeStrongest(pieces, weights) {
  const order = [...pieces.keys()].sort((i, j) => weights[j] - weights[i]);
  const describe = (i) => `${shorten(pieces[i].trim(), 40)} ${signed(weights[i])}`;
  const strongestFor = order.filter((i) => weights[i] > 0).slice(0, 3);
  const strongestAgainst = order.reverse().filter((i) => weights[i] < 0).slice(0, 3);
  const lines = [];
  if (strongestFor.length > 0) {
    lines.push(`Most for it: ${strongestFor.map(describe).join(', ')}`);
  }
  if (strongestAgainst.length > 0) {
    lines.push(`Most against it: ${strongestAgainst.map(describe).join(', ')}`);
  }
  return lines.join('\n');
}

function shorten(text, length) {
  if (text.length <= length) {
    return text;
  }
  return `${text.slice(0, length)}...`;
}

// -----------------------------------------------------------------------------
// earlier texts

let history = []; // answers, the newest first

/** Lists an answer. A text that is listed already moves to the top. */
function remember(answer) {
  const key = JSON.stringify(answer.text);
  const others = history.filter((other) => JSON.stringify(other.text) !== key);
  history = [answer, ...others].slice(0, MAX_HISTORY);
  showHistory();
}

function showHistory() {
  const list = element('history');
  list.replaceChildren();
  for (const answer of history) {
    const button = make('button', '', '');
    const text = make('span', 'text', shorten(showAsLine(answer.text), 200));
    text.dir = 'auto';
    button.append(make('bdi', '', answer.label));
    button.append(make('span', 'number', percent(answer.probability)));
    button.append(text);
    button.addEventListener('click', () => bringBack(answer));
    const item = document.createElement('li');
    item.append(button);
    list.append(item);
  }
  element('no-history').hidden = history.length > 0;
  element('clear').hidden = history.length === 0;
}

/** Shows an earlier text with its answer, which need not be computed again. */
async function bringBack(answer) {
  forgetAnswer();
  setText(answer.text);
  showAnswer(answer);
  element('first').focus();
  if (!answer.explanation) {
    // it was broken off when the text changed
    await explain(answer, newest.signal).catch(() => {});
  }
}

// -----------------------------------------------------------------------------
// a table

let tableRequest = null; // an AbortController, while a table is being labelled
let lastFile = null;
let downloadUrl = '';

/** Sends a file, and shows its labels and the link to the file with labels. */
async function labelFile(file, columns) {
  if (tableRequest) {
    setLine('table-error', `${lastFile.name} is still being labelled; wait for it or cancel it.`);
    return;
  }
  lastFile = file;
  clearTable();
  if (file.size > about.max_table_bytes) {
    const limit = about.max_table_bytes / 1e6;
    const remedy = 'use sample_classify.py with --input=FILE';
    setLine('table-error', `${file.name} has more than ${limit} MB; ${remedy}.`);
    return;
  }
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    setLine('table-error', `${file.name} cannot be read; is it a folder, or was it changed?`);
    return;
  }
  tableRequest = new AbortController();
  element('cancel').hidden = false;
  const stopClock = startClock(file.name);
  try {
    const response = await send(`/table?${new URLSearchParams({ name: file.name, ...columns })}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/octet-stream' },
      body: file,
      signal: tableRequest.signal,
    });
    const summary = JSON.parse(decodeURIComponent(response.headers.get('X-Summary')));
    const content = await response.blob();
    stopClock();
    showTable(summary, content);
  } catch (error) {
    stopClock();
    showTableError(error);
  } finally {
    tableRequest = null;
    element('cancel').hidden = true;
  }
}

/** Shows how long a file has been taking. Returns what ends it. */
function startClock(name) {
  const begin = Date.now();
  const show = () => {
    const seconds = Math.floor((Date.now() - begin) / 1000);
    setLine('table-status', `${name} is being labelled: ${seconds} s`);
  };
  show();
  const clock = setInterval(show, 1000);
  return () => {
    clearInterval(clock);
    setLine('table-status', '');
  };
}

function clearTable() {
  setLine('table-error', '');
  setLine('table-status', '');
  element('columns').hidden = true;
  element('table-result').hidden = true;
  URL.revokeObjectURL(downloadUrl);
}

function showTable(summary, content) {
  setLine('table-status', `${summary.counts}.`);
  const largest = Math.max(...summary.labels.map(([, count]) => count), 1);
  const bars = summary.labels.map(([label, count]) => ({
    label,
    share: count / largest,
    number: count.toLocaleString('en'),
    isBest: count === largest,
  }));
  showBars(element('table-bars'), bars);

  const notes = element('table-notes');
  notes.replaceChildren();
  for (const note of summary.notes) {
    const item = make('li', '', note);
    item.dir = 'auto';
    notes.append(item);
  }
  downloadUrl = URL.createObjectURL(content);
  const link = element('download');
  link.href = downloadUrl;
  link.download = summary.name;
  link.textContent = `Download ${summary.name}`;
  element('table-result').hidden = false;
}

/** Shows an error in words; if the columns are known, they can be chosen from. */
function showTableError(error) {
  if (error.name === 'AbortError') {
    setLine('table-status', `${lastFile.name} was cancelled.`);
    return;
  }
  setLine('table-error', error.message);
  if (!error.columns) {
    return;
  }
  for (const id of ['text-column', 'pair-column']) {
    const options = error.columns.map((name) => new Option(name, name));
    element(id).replaceChildren(...options);
  }
  element('pair-column').selectedIndex = Math.min(1, error.columns.length - 1);
  element('columns').hidden = false;
}

function labelWithColumns() {
  const columns = { text_column: element('text-column').value };
  if (about.has_pairs) {
    columns.text_pair_column = element('pair-column').value;
  }
  labelFile(lastFile, columns);
}

/** Takes the files that were chosen or dropped. */
function takeFiles(files) {
  if (files.length === 0) {
    return;
  }
  if (files.length > 1) {
    setLine('table-error', 'These are several files; drop one at a time.');
    return;
  }
  labelFile(files[0], {});
}

// -----------------------------------------------------------------------------
// the page

async function showAbout() {
  const response = await send('/about', {});
  about = await response.json();
  const name = nameOfRun(about.run);
  document.title = `Try ${name}`;
  element('run').textContent = name;

  const facts = [`trained on ${about.dataset}`, describeLabels(about.labels)];
  if (about.threshold > 0) {
    facts.push(`uncertain below ${percent(about.threshold)}`);
  }
  if (about.windows) {
    facts.push('long texts are read in windows');
  }
  element('about').textContent = facts.join(' \u00b7 ');
  element('about').title = about.run;

  if (about.has_pairs) {
    element('first-label').textContent = 'First text';
    element('second-field').hidden = false;
    element('pair-column-field').hidden = false;
  }
}

/** 'out/sst2/best.pt' -> 'sst2', 'out/sst2/seed-1/best.pt' -> 'sst2/seed-1' */
function nameOfRun(path) {
  const folders = path.split(/[\\/]/).filter((name) => !name.endsWith('.pt'));
  const isRepeat = /^(seed|fold)-\d+$/.test(folders.at(-1));
  return folders.slice(isRepeat ? -2 : -1).join('/') || path;
}

function describeLabels(labels) {
  const names = labels.slice(0, 6).map((label) => shorten(label, 24));
  const shown = names.join(', ');
  if (labels.length > 6) {
    return `${labels.length} labels: ${shown} ...`;
  }
  return `labels: ${shown}`;
}

function showExamples() {
  for (const text of about.has_pairs ? PAIR_EXAMPLES : EXAMPLES) {
    const button = make('button', '', showAsLine(text));
    button.type = 'button';
    button.dir = 'auto';
    button.addEventListener('click', () => {
      setText(text);
      classify(true);
    });
    element('examples').append(button);
  }
}

function listenToText() {
  for (const id of ['first', 'second']) {
    element(id).addEventListener('input', () => {
      forgetAnswer();
      timer = setTimeout(() => classify(false), CLASSIFY_AFTER_MS);
    });
    element(id).addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        classify(true);
      }
    });
  }
  element('form').addEventListener('submit', (event) => {
    event.preventDefault();
    classify(true);
  });
  element('clear').addEventListener('click', () => {
    history = [];
    showHistory();
    element('first').focus();
  });
}

function listenToFiles() {
  element('choose').addEventListener('click', () => element('file').click());
  element('file').addEventListener('change', (event) => {
    takeFiles([...event.target.files]);
    event.target.value = ''; // so that the same file can be chosen again
  });
  element('cancel').addEventListener('click', () => tableRequest?.abort());
  element('columns').addEventListener('submit', (event) => {
    event.preventDefault();
    labelWithColumns();
  });

  // A browser would open a dropped file in place of this page. Dragged text may go to the box.
  const hasFiles = (event) => event.dataTransfer.types.includes('Files');
  document.addEventListener('dragover', (event) => {
    if (hasFiles(event)) {
      event.preventDefault();
      element('drop').hidden = false;
    }
  });
  document.addEventListener('dragleave', (event) => {
    if (event.relatedTarget === null) {
      element('drop').hidden = true;
    }
  });
  document.addEventListener('drop', (event) => {
    element('drop').hidden = true;
    if (hasFiles(event)) {
      event.preventDefault();
      takeFiles([...event.dataTransfer.files]);
    }
  });
}

async function main() {
  listenToText();
  listenToFiles();
  try {
    await showAbout();
  } catch (error) {
    setLine('error', error.message);
    return;
  }
  showExamples();
  if (!isBlank(currentText())) {
    classify(false); // a browser may keep the text when the page is loaded again
  }
}

main();
