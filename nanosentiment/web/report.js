// The page of report.html: scores, a list of texts that can be filtered, and the text that is open.
//
// What is shown follows from the URL's hash alone: whoever changes something changes the hash, and
// hashchange draws the page. So every view has an address, and the browser's back button works.
// Labels and texts are data: they become text nodes, never markup.

// -----------------------------------------------------------------------------
// data: see collect() in browser.py

// JSON, compressed by zlib and written in base64: texts take a quarter of the space.
async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).json();
}

if (!('DecompressionStream' in window)) {
  document.getElementById('about').textContent = 'This page needs a browser of 2023 or later.';
}
const data = await unpack(document.getElementById('data').textContent);
const { labels, texts, suspects, explanations } = data;
const nTexts = texts.row.length;
const nKnown = data.n_known; // the labels after these are unknown to the run

// what browser.py has multiplied with before rounding
const PROBABILITY_UNITS = 10000;
const WEIGHT_UNITS = 100;

// ln(0), which JSON does not know, is null
texts.loss = texts.loss.map((loss) => (loss === null ? Infinity : loss));

// a record number -> the number of the text in the columns
const textOfRow = new Map(texts.row.map((row, i) => [row, i]));
const suspectOfRow = new Map();
if (suspects) {
  suspects.row.forEach((row, i) => suspectOfRow.set(row, i));
}

function isRight(i) {
  return texts.truth[i] === texts.guess[i];
}

function probability(i, label) {
  return data.probabilities[i * nKnown + label] / PROBABILITY_UNITS;
}

function lengthName(bin) {
  return `${bin.shortest}–${bin.longest}`;
}

// -----------------------------------------------------------------------------
// elements

// Children that are strings become text nodes; null is left out.
function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svgElement(name, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function find(id) {
  return document.getElementById(id);
}

function makeButton(attributes, onClick, ...children) {
  const button = element('button', { type: 'button', ...attributes }, ...children);
  button.addEventListener('click', onClick);
  return button;
}

// A label in its own direction, whatever the direction of what stands around it.
function labelElement(name) {
  return element('bdi', { class: 'label', title: name }, name);
}

function formatCount(n) {
  return n.toLocaleString('en');
}

function formatShare(value) {
  return value.toFixed(3);
}

function formatPercent(share) {
  return `${Math.round(100 * share)} %`;
}

function formatLoss(loss) {
  return Number.isFinite(loss) ? loss.toFixed(2) : '∞';
}

function formatInterval(interval) {
  return `${formatShare(interval[0])}–${formatShare(interval[1])}`;
}

// 0.897 and, small behind it, 0.875–0.915
function shareWithInterval(value, interval) {
  if (value === undefined) {
    return '';
  }
  const small = interval ? element('small', {}, formatInterval(interval)) : null;
  return element('span', { class: 'share' }, formatShare(value), small);
}

// head is a list of texts, rows a list of lists of texts or elements. The first column is heads.
function makeTable(head, rows) {
  const headCells = head.map((text) => element('th', { scope: 'col' }, text));
  const bodyRows = rows.map(([first, ...others]) => {
    const cells = others.map((cell) => element('td', {}, cell));
    return element('tr', {}, element('th', { scope: 'row' }, first), ...cells);
  });
  const headRow = element('tr', {}, ...headCells);
  return element('table', {}, element('thead', {}, headRow), element('tbody', {}, ...bodyRows));
}

// -----------------------------------------------------------------------------
// state <-> hash

const DEFAULTS = {
  tab: 'scores', // scores, texts or suspects
  truth: '', // a label
  guess: '', // a label
  length: '', // a bin, as lengthName has it
  tag: '',
  show: 'all', // all, errors or right
  search: '',
  sort: '-loss', // a key of SORTS; with - the largest first
  open: '', // the record number of a text
};

const FILTERS = ['truth', 'guess', 'length', 'tag', 'show', 'search'];

function readState() {
  const params = new URLSearchParams(location.hash.slice(1));
  const state = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    state[name] = params.get(name) ?? DEFAULTS[name];
  }
  const tabs = suspects ? ['scores', 'texts', 'suspects'] : ['scores', 'texts'];
  if (!tabs.includes(state.tab)) {
    state.tab = DEFAULTS.tab;
  }
  if (!Object.hasOwn(SORTS, state.sort.replace('-', ''))) {
    state.sort = DEFAULTS.sort;
  }
  return state;
}

function toHash(state) {
  const params = new URLSearchParams({ tab: state.tab });
  for (const [name, value] of Object.entries(state)) {
    if (name !== 'tab' && value !== DEFAULTS[name]) {
      params.set(name, value);
    }
  }
  return `#${params}`;
}

// Changes the address. The page is drawn afterwards, when hashchange comes.
function goTo(changes) {
  location.hash = toHash({ ...readState(), ...changes });
}

// What gets the focus when the page has been drawn: it may be hidden or covered until then.
let nextFocus = null;

function goToAndFocus(changes, id) {
  const before = location.hash;
  goTo(changes);
  nextFocus = id;
  if (location.hash === before) {
    focusNext();
  }
}

function focusNext() {
  if (nextFocus !== null) {
    find(nextFocus).focus({ preventScroll: true });
    nextFocus = null;
  }
}

// goTo without a step for the back button: typing and walking through the list take many.
function replaceWith(changes) {
  location.replace(toHash({ ...readState(), ...changes }));
}

function toggle(name, value) {
  const isOn = readState()[name] === value;
  goTo({ [name]: isOn ? DEFAULTS[name] : value, open: '' });
}

// -----------------------------------------------------------------------------
// head and scores

function drawHead() {
  const { about } = data;
  document.title = `${data.name} – report`;
  find('title').textContent = data.name;
  const facts = [];
  if (about.dataset) {
    facts.push(about.dataset);
  }
  const split = about.split ? ` of ${about.split}` : '';
  facts.push(`${formatCount(about.n)} texts${split}`);
  if (about.n_train) {
    facts.push(`trained on ${formatCount(about.n_train)}`);
  }
  if (about.n_params) {
    facts.push(`${formatCount(about.n_params)} parameters`);
  }
  find('about').textContent = facts.join(' · ');
  find('tab-suspects').hidden = !suspects;
}

function drawTiles() {
  const { scores } = data;
  const tiles = [
    ['Accuracy', scores.accuracy, intervalNote(scores.accuracy_ci)],
    ['Macro-F1', scores.macro_f1, intervalNote(scores.macro_f1_ci)],
    ['NLL', scores.nll, 'nats per text'],
    ['ECE', scores.ece, calibrationNote(scores)],
  ];
  for (const [name, value, note] of tiles) {
    if (value !== undefined) {
      const figure = element('strong', {}, formatShare(value));
      const small = element('small', {}, note);
      find('tiles').append(element('p', { class: 'tile' }, name, figure, small));
    }
  }
}

function intervalNote(interval) {
  return interval ? `95 %: ${formatInterval(interval)}` : '';
}

function calibrationNote(scores) {
  if (scores.ece_calibrated === undefined) {
    return 'as trained';
  }
  const calibrated = formatShare(scores.ece_calibrated);
  if (scores.temperature === undefined) {
    return `${calibrated} calibrated`; // folds have a temperature each
  }
  return `${calibrated} with temperature ${scores.temperature.toFixed(2)}`;
}

function drawBaselines() {
  const { scores } = data;
  const rows = [scoreRow('this model', scores)];
  for (const [name, baseline] of Object.entries(data.baselines)) {
    if (baseline) {
      rows.push(scoreRow(name.replaceAll('_', ' '), baseline));
    }
  }
  find('baselines').append(makeTable(['', 'accuracy', 'macro-F1'], rows));
}

function scoreRow(name, scores) {
  return [
    name,
    shareWithInterval(scores.accuracy, scores.accuracy_ci),
    shareWithInterval(scores.macro_f1, scores.macro_f1_ci),
  ];
}

// The seeds or folds, of which this run is one, and their mean.
function drawRuns() {
  const { runs } = data;
  find('runs-section').hidden = runs.length === 0;
  if (runs.length === 0) {
    return;
  }
  const isFolds = runs[0].name.startsWith('fold-');
  find('runs-title').textContent = isFolds ? 'All folds' : 'All seeds';
  const rows = runs.map((run) => [...scoreRow(run.name, run), formatCount(run.n)]);
  if (runs.length > 1) {
    const accuracies = runs.map((run) => run.accuracy);
    const macroF1s = runs.map((run) => run.macro_f1);
    rows.push(['mean', meanAndDeviation(accuracies), meanAndDeviation(macroF1s), '']);
  }
  find('runs').append(makeTable(['', 'accuracy', 'macro-F1', 'texts'], rows));
}

function meanAndDeviation(values) {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = Math.sqrt(squares / (n - 1)); // of a sample
  const small = element('small', {}, `sd ${formatShare(deviation)}`);
  return element('span', { class: 'share' }, formatShare(mean), small);
}

function drawLabelScores() {
  const rows = data.label_scores.map((scores, i) => {
    const href = toHash({ ...DEFAULTS, tab: 'texts', truth: labels[i] });
    return [
      element('a', { href }, labelElement(labels[i])),
      shareWithInterval(scores.precision, scores.precision_ci),
      shareWithInterval(scores.recall, scores.recall_ci),
      formatShare(scores.f1),
      formatCount(scores.support),
    ];
  });
  const head = ['label', 'precision', 'recall', 'F1', 'texts'];
  find('label-scores').append(makeTable(head, rows));
}

function drawCommand() {
  const { about } = data;
  find('command-section').hidden = !about.command;
  if (about.command) {
    const commit = about.git ? `\n# commit ${about.git}` : '';
    find('command').textContent = about.command + commit;
  }
}

// -----------------------------------------------------------------------------
// plots: lines over two axes

const PLOT = { width: 420, height: 270, left: 60, right: 12, top: 12, bottom: 42 };

// values -> about `count` round numbers that lie between the smallest and the largest
function roundTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i += 1) {
    ticks.push(Number((i * step).toPrecision(6)));
  }
  return ticks;
}

// Two axes with ticks and titles -> the <svg>, and a function that gives a point's place in it.
function makeAxes(xRange, yRange, xTitle, yTitle, description) {
  const { width, height, left, right, top, bottom } = PLOT;
  const place = (x, y) => [
    left + ((x - xRange[0]) / (xRange[1] - xRange[0])) * (width - left - right),
    height - bottom - ((y - yRange[0]) / (yRange[1] - yRange[0])) * (height - top - bottom),
  ];
  const viewBox = `0 0 ${width} ${height}`;
  const svg = svgElement('svg', { viewBox, class: 'plot', role: 'img', 'aria-label': description });
  for (const tick of roundTicks(...yRange, 6)) {
    const [, y] = place(xRange[0], tick);
    svg.append(
      svgElement('line', { class: 'grid', x1: left, x2: width - right, y1: y, y2: y }),
      svgElement('text', { class: 'y-tick', x: left - 6, y: y + 4 }, String(tick)),
    );
  }
  for (const tick of roundTicks(...xRange, 6)) {
    const [x] = place(tick, yRange[0]);
    svg.append(svgElement('text', { class: 'x-tick', x, y: height - bottom + 16 }, String(tick)));
  }
  const baseline = height - bottom;
  const middle = (top + baseline) / 2;
  const turned = `rotate(-90 11 ${middle})`;
  svg.append(
    svgElement('line', { class: 'axis', x1: left, x2: width - right, y1: baseline, y2: baseline }),
    svgElement('text', { class: 'x-title', x: (left + width - right) / 2, y: height - 6 }, xTitle),
    svgElement('text', { class: 'y-title', x: 11, y: middle, transform: turned }, yTitle),
  );
  return { svg, place };
}

// points is a list of [x, y]; style is a class of report.css
function drawLine(axes, points, style) {
  const places = points.map(([x, y]) => axes.place(x, y).map((at) => at.toFixed(1)).join(','));
  axes.svg.append(svgElement('polyline', { class: `line ${style}`, points: places.join(' ') }));
}

// A marker's shape tells two curves apart where their colours do not.
function drawMarkers(axes, points, style, shape) {
  for (const point of points) {
    const [x, y] = axes.place(...point);
    axes.svg.append(marker(x, y, style, shape));
  }
}

function marker(x, y, style, shape) {
  if (shape === 'square') {
    const attributes = { x: x - 3, y: y - 3, width: 6, height: 6 };
    return svgElement('rect', { class: `marker ${style}`, ...attributes });
  }
  return svgElement('circle', { class: `marker ${style}`, cx: x, cy: y, r: 3.5 });
}

// A plot with the legend below it; entries are [name, style, shape].
function makeFigure(axes, entries) {
  const items = entries.map(([name, style, shape]) => {
    const attributes = { class: 'sample', viewBox: '0 0 28 12', 'aria-hidden': 'true' };
    const sample = svgElement('svg', attributes);
    sample.append(svgElement('line', { class: `line ${style}`, x1: 1, x2: 27, y1: 6, y2: 6 }));
    if (shape) {
      sample.append(marker(14, 6, style, shape));
    }
    return element('li', {}, sample, name);
  });
  const caption = element('figcaption', {}, element('ul', { class: 'legend' }, ...items));
  return element('figure', {}, axes.svg, caption);
}

// -----------------------------------------------------------------------------
// learning curves

function drawCurves() {
  const { curves } = data;
  const isEmpty = curves.loss.length + curves.val_loss.length === 0;
  find('curves-section').hidden = isEmpty;
  if (isEmpty) {
    return;
  }
  find('curves').append(
    drawCurvePlot('loss (nats per text)', 0, [
      ['single steps', curves.loss, 'step', ''],
      ['training texts', curves.train_loss, 'second', 'square'],
      ['validation texts', curves.val_loss, 'first', 'circle'],
    ]),
  );
  if (curves.val_accuracy.length > 0) {
    find('curves').append(
      drawCurvePlot('validation score', null, [
        ['accuracy', curves.val_accuracy, 'second', 'square'],
        ['macro-F1', curves.val_macro_f1, 'first', 'circle'],
      ]),
    );
  }
}

// series is a list of [name, points, style, shape]; lowest is where the y axis begins, or null
function drawCurvePlot(yTitle, lowest, series) {
  const shown = series.filter(([, points]) => points.length > 0);
  const points = shown.flatMap(([, pointsOfSeries]) => pointsOfSeries);
  const epochs = points.map(([epoch]) => epoch);
  const values = points.map(([, value]) => value);
  const xRange = [0, Math.max(...epochs, 1e-3)];
  const yRange = valueRange(values, lowest);
  const best = data.curves.best_epoch;
  const axes = makeAxes(xRange, yRange, 'epoch', yTitle, describeCurves(yTitle, shown, best));
  const legend = [];

  if (best !== null && best <= xRange[1]) {
    drawLine(axes, [[best, yRange[0]], [best, yRange[1]]], 'best');
    legend.push([`best evaluation: epoch ${Number(best.toPrecision(4))}`, 'best', '']);
  }
  for (const [name, pointsOfSeries, style, shape] of shown) {
    drawLine(axes, pointsOfSeries, style);
    if (shape) {
      drawMarkers(axes, pointsOfSeries, style, shape);
    }
    legend.push([name, style, shape]);
  }
  return makeFigure(axes, legend);
}

// A little more than the smallest to the largest value; not less, or the ticks get many digits.
function valueRange(values, lowest) {
  const low = lowest ?? Math.min(...values);
  const high = Math.max(...values);
  const margin = Math.max((high - low) * 0.06, 0.01);
  return [lowest ?? low - margin, high + margin];
}

function describeCurves(yTitle, series, best) {
  const parts = series.map(([name, points]) => {
    const first = formatShare(points[0][1]);
    const last = formatShare(points[points.length - 1][1]);
    return `${name} from ${first} to ${last}`;
  });
  if (best !== null) {
    parts.push(`best evaluation at epoch ${Number(best.toPrecision(4))}`);
  }
  return `${yTitle} over epochs: ${parts.join(', ')}`;
}

// -----------------------------------------------------------------------------
// reliability diagram

function drawReliability() {
  // no prediction has less than 1 / K
  const lowest = Math.min(1 / nKnown, 0.95);
  const description = data.reliability
    .map((curve) => `${curve.name}, calibration error ${formatShare(curve.ece)}`)
    .join('; ');
  const lows = data.reliability.flatMap((curve) => curve.ci.map(([low]) => low));
  const lowestShare = Math.floor(Math.min(...lows, lowest) * 10) / 10;
  const yRange = [lowestShare, 1.02];
  const axes = makeAxes([lowest, 1.005], yRange, 'confidence', 'share right', description);
  drawLine(axes, [[lowest, lowest], [1, 1]], 'best');
  const legend = [['perfectly calibrated', 'best', '']];

  for (const curve of data.reliability) {
    const isCalibrated = curve.name === 'calibrated';
    const style = isCalibrated ? 'first' : 'second';
    const shape = isCalibrated ? 'circle' : 'square';
    const points = curve.confidence.map((confidence, i) => [confidence, curve.share[i]]);
    // one of the curves has intervals: those of both would cover each other
    if (isCalibrated || data.reliability.length === 1) {
      points.forEach(([confidence], i) => {
        const [low, high] = curve.ci[i];
        drawLine(axes, [[confidence, low], [confidence, high]], `${style} whisker`);
      });
    }
    // with fewer than 10 texts per bin, a line through the points would only zigzag
    if (curve.n[0] >= 10) {
      drawLine(axes, points, style);
    }
    drawMarkers(axes, points, style, shape);
    legend.push([`${curve.name}, ECE ${formatShare(curve.ece)}`, style, shape]);
  }
  find('reliability').append(makeFigure(axes, legend));

  const n = formatCount(data.reliability[0].n[0]);
  const explanation =
    `Each point is about ${n} texts of similar confidence. Above the dotted line the model is ` +
    'right more often than it says, below it less often. Vertical lines are 95 % intervals.';
  const note = element('p', { class: 'note' }, explanation);
  find('reliability').append(element('div', { class: 'beside' }, note, coverageTable()));
}

// What it gains to answer only when the model is confident.
function coverageTable() {
  if (data.coverage.length === 0) {
    return null;
  }
  const rows = data.coverage.map(([confidence, share, accuracy]) => [
    String(confidence),
    formatShare(share),
    accuracy === null ? '' : formatShare(accuracy),
  ]);
  const head = ['confidence at least', 'share of texts', 'accuracy on these'];
  return element('div', { class: 'table-box' }, makeTable(head, rows));
}

// -----------------------------------------------------------------------------
// confusion matrix, whose cells and heads are filters

// cells of more labels have no shares in them, and the heads stand upright
const MAX_LARGE_CELLS = 8;

function drawMatrix() {
  const columns = labels.slice(0, nKnown);
  const isLarge = labels.length <= MAX_LARGE_CELLS;
  const headCells = columns.map((label, guess) =>
    element('th', { scope: 'col', class: 'column-head' }, headButton('guess', label, guess)),
  );
  const corner = element('td', { class: 'corner' }, 'true ↓', element('br'), 'predicted →');
  const head = element('thead', {}, element('tr', {}, corner, ...headCells));

  const body = element('tbody');
  data.confusion.forEach((counts, truth) => {
    const n = counts.reduce((sum, count) => sum + count, 0);
    const row = element('tr', {});
    row.append(
      element('th', { scope: 'row', class: 'row-head' }, headButton('truth', labels[truth], truth)),
    );
    columns.forEach((_, guess) => row.append(matrixCell(truth, guess, counts[guess], n, isLarge)));
    body.append(row);
  });

  const size = isLarge ? 'large' : 'small';
  const table = element('table', { class: `matrix ${size}`, 'aria-label': 'Confusion matrix' });
  table.append(head, body);
  table.addEventListener('mouseover', showCell);
  table.addEventListener('focusin', showCell);
  find('matrix').append(table);
}

function headButton(filter, label, number) {
  const what = filter === 'truth' ? 'true label' : 'prediction';
  const attributes = { 'data-filter': filter, [`data-${filter}`]: number };
  attributes['aria-label'] = `${what} ${label}`;
  attributes['aria-pressed'] = 'false';
  return makeButton(attributes, () => toggle(filter, label), labelElement(label));
}

function matrixCell(truth, guess, count, n, isLarge) {
  if (count === 0) {
    return element('td', { class: 'zero' }, isLarge ? '0' : '');
  }
  const share = count / n;
  const attributes = { 'data-truth': truth, 'data-guess': guess, 'aria-pressed': 'false' };
  attributes['aria-label'] = describeCell(truth, guess);
  const children = [formatCount(count)];
  if (isLarge) {
    children.push(element('small', {}, formatPercent(share)));
  }
  const button = makeButton(attributes, () => toggleCell(truth, guess), ...children);
  button.style.setProperty('--share', `${Math.round(100 * share)}%`);
  button.className = truth === guess ? 'hit' : 'miss';
  if (share > 0.5) {
    button.classList.add('full');
  }
  return element('td', {}, button);
}

function describeCell(truth, guess) {
  const counts = data.confusion[truth];
  const n = counts.reduce((sum, count) => sum + count, 0);
  const share = formatPercent(counts[guess] / n);
  return `true ${labels[truth]}, predicted ${labels[guess]}: ${counts[guess]} of ${n}, ${share}`;
}

function toggleCell(truth, guess) {
  const state = readState();
  const isOn = state.truth === labels[truth] && state.guess === labels[guess];
  if (isOn) {
    goTo({ truth: '', guess: '', open: '' });
  } else {
    goTo({ truth: labels[truth], guess: labels[guess], open: '' });
  }
}

// Says below the matrix which cell the pointer or the focus is on: small heads are cut off.
function showCell(event) {
  const button = event.target.closest('button');
  if (button === null) {
    return;
  }
  const { truth, guess } = button.dataset;
  const parts = [];
  if (truth !== undefined) {
    parts.push('true ', labelElement(labels[truth]));
  }
  if (truth !== undefined && guess !== undefined) {
    parts.push(', ');
  }
  if (guess !== undefined) {
    parts.push('predicted ', labelElement(labels[guess]));
  }
  if (truth !== undefined && guess !== undefined) {
    const count = describeCell(truth, guess).split(': ').pop();
    parts.push(`: ${count}`);
  }
  find('matrix-readout').replaceChildren(...parts);
}

function markMatrix(state) {
  for (const button of find('matrix').querySelectorAll('button')) {
    const { truth, guess, filter } = button.dataset;
    const hasTruth = truth !== undefined && labels[truth] === state.truth;
    const hasGuess = guess !== undefined && labels[guess] === state.guess;
    const isOn = filter ? hasTruth || hasGuess : hasTruth && hasGuess;
    button.setAttribute('aria-pressed', String(isOn));
  }
}

// -----------------------------------------------------------------------------
// accuracy of groups of texts, which are filters

// groups are [value of the filter, name, group]; a group has n, right and ci
function drawGroups(box, filter, groups, nameOfGroups) {
  const lows = groups.map(([, , group]) => group.ci[0]);
  const low = Math.min(0.9, Math.floor(Math.min(...lows) * 10) / 10);
  const toPercent = (share) => `${(100 * (share - low)) / (1 - low)}%`;
  for (const [value, name, group] of groups) {
    const accuracy = group.right / group.n;
    const interval = formatInterval(group.ci);
    const n = formatCount(group.n);
    const button = makeButton(
      {
        class: 'group',
        'data-value': value,
        'aria-pressed': 'false',
        'aria-label': `${nameOfGroups} ${name}: accuracy ${formatShare(accuracy)} of ${n} texts`,
        title: `95 % interval ${interval}`,
      },
      () => toggle(filter, value),
      element('span', { class: 'group-name' }, name),
      drawTrack(accuracy, group.ci, toPercent),
      element('span', { class: 'number' }, formatShare(accuracy)),
      element('span', { class: 'number muted' }, n),
    );
    box.append(button);
  }
  box.append(drawScale(low, toPercent, nameOfGroups));
}

// A dot for the accuracy on a line for its interval; the dotted line is the accuracy of all texts.
function drawTrack(accuracy, interval, toPercent) {
  const all = toPercent(data.scores.accuracy);
  const svg = svgElement('svg', { class: 'track', 'aria-hidden': 'true' });
  const [x1, x2] = interval.map(toPercent);
  svg.append(
    svgElement('line', { class: 'all-texts', x1: all, x2: all, y1: '0', y2: '100%' }),
    svgElement('line', { class: 'interval', x1, x2, y1: '50%', y2: '50%' }),
    svgElement('circle', { class: 'accuracy', cx: toPercent(accuracy), cy: '50%', r: 4 }),
  );
  return svg;
}

function drawScale(low, toPercent, nameOfGroups) {
  const svg = svgElement('svg', { class: 'track scale', 'aria-hidden': 'true' });
  for (const tick of roundTicks(low, 1, 3)) {
    const attributes = { x: toPercent(tick), y: 12, 'text-anchor': 'middle' };
    svg.append(svgElement('text', attributes, String(tick)));
  }
  return element(
    'div',
    { class: 'group scale-row', 'aria-hidden': 'true' },
    element('span', { class: 'muted' }, nameOfGroups),
    svg,
    element('span', {}, ''),
    element('span', { class: 'muted' }, 'texts'),
  );
}

function drawFacets() {
  drawMatrix();
  const bins = data.lengths.map((bin) => [lengthName(bin), lengthName(bin), bin]);
  drawGroups(find('lengths'), 'length', bins, 'tokens');
  find('tags-section').hidden = data.tags.length === 0;
  if (data.tags.length > 0) {
    const tags = data.tags.map((tag) => [tag.name, tag.name.replaceAll('_', ' '), tag]);
    drawGroups(find('tags'), 'tag', tags, 'tag');
  }
}

function markGroups(state) {
  for (const filter of ['length', 'tag']) {
    for (const button of find(`${filter}s`).querySelectorAll('button')) {
      const isOn = button.dataset.value === state[filter];
      button.setAttribute('aria-pressed', String(isOn));
    }
  }
}

// -----------------------------------------------------------------------------
// which texts are shown, and in which order

// name -> what is compared, and whether the largest comes first at the first click
const SORTS = {
  row: { title: 'row', values: texts.row, isDescending: false },
  truth: { title: 'true', values: texts.truth, isDescending: false },
  guess: { title: 'predicted', values: texts.guess, isDescending: false },
  confidence: { title: 'confidence', values: texts.confidence, isDescending: true },
  margin: { title: 'margin', values: texts.margin, isDescending: false },
  loss: { title: 'loss', values: texts.loss, isDescending: true },
  tokens: { title: 'tokens', values: texts.tokens, isDescending: true },
};

// A pattern that finds a text whatever the case of its letters; null if nothing is searched.
function searchPattern(search, flags = 'iu') {
  if (search.trim() === '') {
    return null;
  }
  return new RegExp(search.trim().replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), flags);
}

// The numbers of the texts that all filters let through.
function filterTexts(state) {
  const pattern = searchPattern(state.search);
  const bin = data.lengths.find((other) => lengthName(other) === state.length);
  const matching = [];
  for (let i = 0; i < nTexts; i += 1) {
    if (state.truth && labels[texts.truth[i]] !== state.truth) continue;
    if (state.guess && labels[texts.guess[i]] !== state.guess) continue;
    if (bin && (texts.tokens[i] < bin.shortest || texts.tokens[i] > bin.longest)) continue;
    if (state.tag && !texts.tags[i].includes(state.tag)) continue;
    if (state.show === 'errors' && isRight(i)) continue;
    if (state.show === 'right' && !isRight(i)) continue;
    if (pattern && !pattern.test(texts.text[i])) continue;
    matching.push(i);
  }
  return matching;
}

function sortTexts(numbers, sort) {
  const { values } = SORTS[sort.replace('-', '')];
  const sign = sort.startsWith('-') ? -1 : 1;
  numbers.sort((i, j) => {
    if (values[i] === values[j]) {
      return i - j;
    }
    return values[i] < values[j] ? -sign : sign;
  });
  return numbers;
}

function filterSuspects(state) {
  const pattern = searchPattern(state.search);
  const numbers = [...suspects.row.keys()];
  return numbers.filter((i) => !pattern || pattern.test(suspects.text[i]));
}

// -----------------------------------------------------------------------------
// the list, in which only the rows on the screen exist

const list = {
  items: [], // numbers of texts, or of suspects
  rows: [], // their record numbers
  selected: 0, // a place in items
  drawItem: drawTextItem,
  key: '', // the filters, the search and the order that it shows
  isPrinting: false, // paper does not scroll: it gets the first rows
};
const rowsBox = element('div', { class: 'rows', role: 'presentation' });
const ruler = element('div', { class: 'option ruler', 'aria-hidden': 'true' });
find('list').append(ruler, rowsBox);

// rows drawn above and below the screen, so that scrolling shows no gap
const SPARE_ROWS = 8;
const MAX_PRINTED_ROWS = 100;

function drawList() {
  const box = find('list');
  const rowHeight = ruler.offsetHeight;
  let first = Math.floor(box.scrollTop / rowHeight) - SPARE_ROWS;
  let last = Math.ceil((box.scrollTop + box.clientHeight) / rowHeight) + SPARE_ROWS;
  if (list.isPrinting) {
    first = 0;
    last = MAX_PRINTED_ROWS;
  }
  first = Math.max(first, 0);
  last = Math.min(last, list.items.length);
  const options = [];
  for (let place = first; place < last; place += 1) {
    options.push(makeOption(place, place * rowHeight));
  }
  rowsBox.style.height = `${list.items.length * rowHeight}px`;
  rowsBox.replaceChildren(...options);
  if (list.items.length === 0) {
    rowsBox.append(element('p', { class: 'empty' }, 'No text passes these filters.'));
  }
  markSelected();
}

function makeOption(place, top) {
  const option = list.drawItem(list.items[place]);
  option.id = `option-${place}`;
  option.style.top = `${top}px`;
  option.setAttribute('role', 'option');
  option.setAttribute('aria-setsize', list.items.length);
  option.setAttribute('aria-posinset', place + 1);
  option.addEventListener('click', () => {
    list.selected = place;
    goTo({ open: String(list.rows[place]) });
  });
  return option;
}

function markSelected() {
  const box = find('list');
  for (const option of rowsBox.querySelectorAll('.option')) {
    option.setAttribute('aria-selected', String(option.id === `option-${list.selected}`));
  }
  // the focus stays on the box, because an option that is scrolled away does not exist
  if (find(`option-${list.selected}`)) {
    box.setAttribute('aria-activedescendant', `option-${list.selected}`);
  } else {
    box.removeAttribute('aria-activedescendant');
  }
}

function select(place) {
  list.selected = Math.max(0, Math.min(place, list.items.length - 1));
  const box = find('list');
  const rowHeight = ruler.offsetHeight;
  const top = list.selected * rowHeight;
  if (top < box.scrollTop) {
    box.scrollTop = top;
  } else if (top + rowHeight > box.scrollTop + box.clientHeight) {
    box.scrollTop = top + rowHeight - box.clientHeight;
  }
  drawList();
}

function drawTextItem(i) {
  const tags = texts.tags[i].map((tag) => element('span', { class: 'tag' }, tag.replace('_', ' ')));
  const kind = isRight(i) ? 'right' : 'wrong';
  const mark = isRight(i) ? '✓' : '✗';
  const excerpt = excerptOf(texts.text[i], readState().search);
  return element(
    'div',
    { class: `option ${kind}` },
    element('span', { class: 'text', dir: 'auto' }, ...excerpt),
    element('span', { class: 'meta' }, `row ${texts.row[i]}`, ...tags),
    element('span', { class: 'truth' }, labelElement(labels[texts.truth[i]])),
    element(
      'span',
      { class: 'guess' },
      element('span', { class: 'mark', role: 'img', 'aria-label': kind }, mark),
      labelElement(labels[texts.guess[i]]),
    ),
    element('span', { class: 'number confidence' }, formatShare(texts.confidence[i])),
    element('span', { class: 'number margin' }, formatShare(texts.margin[i])),
    element('span', { class: 'number loss' }, formatLoss(texts.loss[i])),
  );
}

function drawSuspectItem(i) {
  const fold = suspects.fold[i] === '' ? '' : ` · fold ${suspects.fold[i]}`;
  const excerpt = excerptOf(suspects.text[i], readState().search);
  return element(
    'div',
    { class: 'option suspect' },
    element('span', { class: 'text', dir: 'auto' }, ...excerpt),
    element('span', { class: 'meta' }, `row ${suspects.row[i]}${fold}`),
    element('span', { class: 'truth' }, labelElement(suspects.label[i])),
    element('span', { class: 'guess' }, labelElement(suspects.suggested[i])),
    element('span', { class: 'number p-label' }, formatShare(suspects.p_label[i])),
    element('span', { class: 'number p-suggested' }, formatShare(suspects.p_suggested[i])),
  );
}

// The begin of a text on one line, or the part around what is searched.
function excerptOf(text, search) {
  const pattern = searchPattern(search);
  const at = pattern ? text.search(pattern) : -1;
  const begin = at > 60 ? at - 40 : 0;
  const part = text.slice(begin, begin + 300).replace(/\s+/g, ' ');
  return markHits((begin > 0 ? '…' : '') + part, search);
}

// A text -> text nodes and <mark> elements around what is searched.
function markHits(text, search) {
  const pattern = searchPattern(search, 'giu');
  if (pattern === null) {
    return [text];
  }
  const parts = [];
  let end = 0;
  for (const hit of text.matchAll(pattern)) {
    parts.push(text.slice(end, hit.index), element('mark', {}, hit[0]));
    end = hit.index + hit[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}

// -----------------------------------------------------------------------------
// above the list: search, what is shown, the filters that are on, the order

function drawShowButtons() {
  for (const show of ['all', 'errors', 'right']) {
    const onClick = () => goTo({ show, open: '' });
    find('show').append(makeButton({ 'data-show': show }, onClick, show));
  }
}

const FILTER_TITLES = { truth: 'true', guess: 'predicted', length: 'tokens', tag: 'tag' };

function drawToolbar(state) {
  const isSuspects = state.tab === 'suspects';
  find('show').hidden = isSuspects;
  for (const button of find('show').children) {
    button.setAttribute('aria-pressed', String(button.dataset.show === state.show));
  }
  // what is being typed is not yet in the state
  if (typingTimer === null && find('search').value !== state.search) {
    find('search').value = state.search;
  }

  find('count').textContent = describeCount(state);
  find('chips').replaceChildren(...(isSuspects ? [] : makeChips(state)));
  drawSortButtons(state);

  find('suspects-note').hidden = !isSuspects;
  if (isSuspects) {
    find('suspects-note').textContent = describeSuspects();
  }
}

function describeSuspects() {
  const text =
    'Texts whose label is probably wrong, the most suspicious first. p is the probability of a ' +
    'label, predicted by a model that was not trained on the text.';
  if (suspects.n > suspects.row.length) {
    return `${text} These are the first ${suspects.row.length} of ${suspects.n}.`;
  }
  return text;
}

function describeCount(state) {
  const n = list.items.length;
  if (state.tab === 'suspects') {
    return `${formatCount(n)} suspects`;
  }
  if (n === 0) {
    return `0 of ${formatCount(nTexts)} texts`;
  }
  const nRight = list.items.filter(isRight).length;
  const all = n === nTexts ? '' : ` of ${formatCount(nTexts)}`;
  return `${formatCount(n)}${all} texts, ${formatCount(nRight)} right (${formatShare(nRight / n)})`;
}

// A button for each filter that is on, which takes it off.
function makeChips(state) {
  const chips = [];
  for (const [name, title] of Object.entries(FILTER_TITLES)) {
    if (state[name]) {
      const attributes = { class: 'chip', 'aria-label': `remove filter: ${title} ${state[name]}` };
      const onClick = () => goTo({ [name]: '', open: '' });
      const children = [`${title} `, labelElement(state[name]), ' ×'];
      chips.push(makeButton(attributes, onClick, ...children));
    }
  }
  const isFiltered = FILTERS.some((name) => state[name] !== DEFAULTS[name]);
  if (isFiltered) {
    const cleared = Object.fromEntries(FILTERS.map((name) => [name, DEFAULTS[name]]));
    const onClick = () => goTo({ ...cleared, open: '' });
    chips.push(makeButton({ class: 'chip clear' }, onClick, 'clear all'));
  }
  return chips;
}

function drawSortButtons(state) {
  if (state.tab === 'suspects') {
    const titles = ['text', 'label', 'suggested', 'p label', 'p suggested'];
    const heads = titles.map((title) => {
      const name = title.replace(' ', '-');
      return element('span', { class: `sort-${name}` }, title);
    });
    find('sort').className = 'sort for-suspects';
    find('sort').replaceChildren(...heads);
    return;
  }
  const buttons = Object.entries(SORTS).map(([name, { title, isDescending }]) => {
    const isOn = state.sort.replace('-', '') === name;
    const arrow = state.sort.startsWith('-') ? '↓' : '↑';
    const first = isDescending ? `-${name}` : name;
    const flipped = state.sort.startsWith('-') ? name : `-${name}`;
    const attributes = { class: `sort-${name}`, 'data-sort': name, 'aria-pressed': String(isOn) };
    const children = [title, element('span', { class: 'arrow' }, isOn ? arrow : '')];
    return makeButton(attributes, () => goTo({ sort: isOn ? flipped : first }), ...children);
  });
  // replacing the buttons would take the focus from the one that was pressed
  const focused = document.activeElement?.dataset?.sort;
  find('sort').className = 'sort for-texts';
  find('sort').replaceChildren(...buttons);
  if (focused) {
    find('sort').querySelector(`[data-sort="${focused}"]`)?.focus();
  }
}

// -----------------------------------------------------------------------------
// the text that is open

function drawDetail(state) {
  const panel = find('detail');
  const row = Number(state.open);
  const i = textOfRow.get(row);
  const suspect = state.tab === 'suspects' ? suspectOfRow.get(row) : undefined;
  const isOpen = state.open !== '' && (i !== undefined || suspect !== undefined);
  const focused = panel.contains(document.activeElement) && document.activeElement.ariaLabel;
  panel.hidden = !isOpen;
  find('browse').classList.toggle('with-detail', isOpen);
  if (!isOpen) {
    return;
  }
  const parts = [detailHead(row)];
  if (suspect !== undefined) {
    parts.push(suspectFacts(suspect));
  }
  if (i === undefined) {
    const text = markHits(suspects.text[suspect], state.search);
    parts.push(element('p', { class: 'whole-text', dir: 'auto' }, ...text));
    parts.push(element('p', { class: 'note' }, 'This text was predicted by another run.'));
  } else {
    parts.push(textFacts(i), wholeText(i, state.search), probabilityBars(i));
  }
  panel.replaceChildren(...parts.flat());
  panel.scrollTop = 0;
  if (focused) {
    // the button that was pressed has been drawn anew
    (panel.querySelector(`button[aria-label="${focused}"]:enabled`) ?? panel).focus();
  }
}

// On a small screen the panel lies over the page, where nothing can have the focus then.
function coverPage() {
  const panel = find('detail');
  const isCovered = !panel.hidden && getComputedStyle(panel).position === 'fixed';
  for (const part of document.querySelectorAll('.page-head, .facets, .results')) {
    part.inert = isCovered;
  }
  if (isCovered && !panel.contains(document.activeElement)) {
    panel.focus();
  }
}

function detailHead(row) {
  const place = list.rows.indexOf(row);
  const step = (change) => {
    select(place + change);
    replaceWith({ open: String(list.rows[list.selected]) });
  };
  const previous = makeButton({ 'aria-label': 'previous text' }, () => step(-1), '↑');
  const next = makeButton({ 'aria-label': 'next text' }, () => step(1), '↓');
  previous.disabled = place <= 0;
  next.disabled = place < 0 || place === list.rows.length - 1;
  const close = makeButton({ 'aria-label': 'close', class: 'close' }, closeDetail, '×');
  const title = element('h2', {}, `Row ${row}`);
  return element('div', { class: 'detail-head' }, title, previous, next, close);
}

function textFacts(i) {
  const mark = isRight(i) ? '✓' : '✗';
  const kind = isRight(i) ? 'right' : 'wrong';
  const facts = [
    ['true', labelElement(labels[texts.truth[i]])],
    ['predicted', labelElement(labels[texts.guess[i]]), ` ${mark}`],
    ['confidence', formatShare(texts.confidence[i])],
    ['margin', formatShare(texts.margin[i])],
    ['loss', `${formatLoss(texts.loss[i])} nats`],
    ['tokens', texts.tokens[i] + (texts.truncated[i] ? ', cut to block_size' : '')],
    ['tags', texts.tags[i].join(', ').replaceAll('_', ' ') || '–'],
  ];
  return factList(facts, kind);
}

function suspectFacts(i) {
  const pLabel = formatShare(suspects.p_label[i]);
  const pSuggested = formatShare(suspects.p_suggested[i]);
  const facts = [
    ['label', labelElement(suspects.label[i]), `, p ${pLabel}`],
    ['suggested', labelElement(suspects.suggested[i]), `, p ${pSuggested}`],
  ];
  return factList(facts, 'suspect');
}

function factList(facts, kind) {
  const items = facts.map(([name, ...values]) => {
    const term = element('dt', {}, name);
    return element('div', { class: `fact-${name}` }, term, element('dd', {}, ...values));
  });
  return element('dl', { class: `facts ${kind}` }, ...items);
}

// The text; if it was explained, its pieces are coloured and those that weigh most are listed.
function wholeText(i, search) {
  const explanation = explanations[texts.row[i]];
  if (!explanation) {
    const text = markHits(texts.text[i], search);
    return [element('p', { class: 'whole-text', dir: 'auto' }, ...text)];
  }
  const pieces = cutText(texts.text[i], explanation.lengths);
  const weights = explanation.weights.map((weight) => weight / WEIGHT_UNITS);
  const largest = Math.max(...weights.map(Math.abs), 0.01);
  const spans = pieces.map((piece, k) => {
    const side = weights[k] >= 0 ? 'for' : 'against';
    const title = formatWeight(weights[k]);
    const span = element('span', { class: `piece ${side}`, title }, ...markHits(piece, search));
    span.style.setProperty('--weight', `${Math.round((60 * Math.abs(weights[k])) / largest)}%`);
    return span;
  });
  return [
    element('p', { class: `whole-text ${explanation.kind}`, dir: 'auto' }, ...spans),
    explainColours(explanation),
    heaviestPieces(pieces, weights),
  ];
}

// [5, 3] -> the first five characters and the next three, as JavaScript counts them
function cutText(text, lengths) {
  let begin = 0;
  return lengths.map((length) => {
    const piece = text.slice(begin, begin + length);
    begin += length;
    return piece;
  });
}

function formatWeight(weight) {
  const digits = Math.abs(weight).toFixed(2);
  if (weight === 0) {
    return digits;
  }
  return (weight > 0 ? '+' : '−') + digits;
}

function explainColours(explanation) {
  return element(
    'p',
    { class: 'note' },
    element('span', { class: 'piece for named' }, 'Blue'),
    ` ${explanation.kind} speak for `,
    labelElement(explanation.label),
    ', ',
    element('span', { class: 'piece against named' }, 'orange'),
    ' ones against it. The number is by how much its log-odds fall without the piece.',
  );
}

function heaviestPieces(pieces, weights) {
  const order = [...weights.keys()].sort((j, k) => Math.abs(weights[k]) - Math.abs(weights[j]));
  const items = order.slice(0, 5).map((k) => {
    const excerpt = pieces[k].trim().replace(/\s+/g, ' ').slice(0, 120);
    const weight = element('span', { class: 'number' }, formatWeight(weights[k]));
    return element('li', {}, weight, ' ', element('bdi', {}, excerpt));
  });
  return element('ol', { class: 'heaviest', 'aria-label': 'pieces that weigh most' }, ...items);
}

const MAX_OPEN_BARS = 10;

function probabilityBars(i) {
  const order = [...Array(nKnown).keys()];
  order.sort((a, b) => probability(i, b) - probability(i, a) || a - b);
  const bars = order.map((label) => probabilityBar(i, label));
  const heading = element('h3', {}, 'Probabilities');
  const first = element('ul', { class: 'bars' }, ...bars.slice(0, MAX_OPEN_BARS));
  if (bars.length <= MAX_OPEN_BARS) {
    return [heading, first];
  }
  const others = element('ul', { class: 'bars' }, ...bars.slice(MAX_OPEN_BARS));
  const summary = element('summary', {}, `${bars.length - MAX_OPEN_BARS} more labels`);
  return [heading, first, element('details', {}, summary, others)];
}

function probabilityBar(i, label) {
  const value = probability(i, label);
  const bar = element('span', { class: 'bar', 'aria-hidden': 'true' });
  bar.style.setProperty('--value', `${100 * value}%`);
  const isTrue = label === texts.truth[i];
  const name = element('span', { class: 'bar-name' }, labelElement(labels[label]));
  if (isTrue) {
    name.append(element('span', { class: 'tag' }, 'true'));
  }
  const number = element('span', { class: 'number' }, formatShare(value));
  return element('li', {}, name, bar, number);
}

function closeDetail() {
  goToAndFocus({ open: '' }, 'list');
}

// -----------------------------------------------------------------------------
// drawing the page

function drawTabs(state) {
  for (const tab of ['scores', 'texts', 'suspects']) {
    const link = find(`tab-${tab}`);
    // the filters are kept while one looks at another tab
    link.href = toHash({ ...state, tab, open: '' });
    if (tab === state.tab) {
      link.setAttribute('aria-current', 'page');
    } else {
      link.removeAttribute('aria-current');
    }
  }
  find('scores').hidden = state.tab !== 'scores';
  find('browse').hidden = state.tab === 'scores';
  find('facets').hidden = state.tab !== 'texts';
  find('browse').classList.toggle('with-facets', state.tab === 'texts');
}

// Fills the list again if something that it depends on has changed.
function updateList(state) {
  const key = JSON.stringify({ ...state, open: '' });
  if (key === list.key) {
    return;
  }
  list.key = key;
  if (state.tab === 'suspects') {
    list.items = filterSuspects(state);
    list.rows = list.items.map((i) => suspects.row[i]);
    list.drawItem = drawSuspectItem;
  } else {
    list.items = sortTexts(filterTexts(state), state.sort);
    list.rows = list.items.map((i) => texts.row[i]);
    list.drawItem = drawTextItem;
  }
  list.selected = 0;
  find('list').scrollTop = 0;
}

function draw() {
  const state = readState();
  drawTabs(state);
  if (state.tab === 'scores') {
    find('detail').hidden = true;
    coverPage();
    return;
  }
  updateList(state);
  markMatrix(state);
  markGroups(state);
  drawToolbar(state);
  drawDetail(state);

  const place = state.open === '' ? -1 : list.rows.indexOf(Number(state.open));
  select(place >= 0 ? place : list.selected);
  coverPage();
  focusNext();
}

// -----------------------------------------------------------------------------
// events

let typingTimer = null;

// A letter that follows within this time belongs to the same search.
const TYPING_MS = 150;

function startSearch() {
  clearTimeout(typingTimer);
  typingTimer = setTimeout(finishSearch, TYPING_MS);
}

function finishSearch() {
  clearTimeout(typingTimer);
  typingTimer = null;
  const search = find('search').value;
  const before = readState().search;
  if (search === before) {
    return;
  }
  // one step back leads to the view before the search, not through its letters
  if (before === '' || search === '') {
    goTo({ search, open: '' });
  } else {
    replaceWith({ search, open: '' });
  }
}

function moveSelection(change) {
  select(list.selected + change);
  // a text that is open follows the selection
  if (readState().open !== '' && list.rows.length > 0) {
    replaceWith({ open: String(list.rows[list.selected]) });
  }
}

function openSelected() {
  if (list.rows.length > 0) {
    goTo({ open: String(list.rows[list.selected]) });
  }
}

function focusSearch() {
  const { tab } = readState();
  const isCovered = document.querySelector('.results').inert;
  if (tab === 'scores' || isCovered) {
    goToAndFocus({ tab: tab === 'scores' ? 'texts' : tab, open: '' }, 'search');
  } else {
    find('search').focus();
    find('search').select();
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) {
    return;
  }
  const isSearch = event.target === find('search');
  // keys that are pressed on another button or link are its own
  const isList = event.target === find('list') || event.target === document.body;
  const page = Math.max(1, Math.floor(find('list').clientHeight / ruler.offsetHeight) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (!isSearch) {
    Object.assign(steps, { PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity });
  }

  if (event.key === '/' && !isSearch) {
    focusSearch();
  } else if (event.key === 'Escape' && readState().open !== '') {
    closeDetail();
  } else if (readState().tab === 'scores') {
    return;
  } else if (event.key in steps && (isList || isSearch)) {
    find('list').focus({ preventScroll: true });
    moveSelection(steps[event.key]);
  } else if (event.key === 'Enter' && isList) {
    openSelected();
  } else {
    return;
  }
  event.preventDefault();
}

function setPrinting(isPrinting) {
  list.isPrinting = isPrinting;
  find('facets').open = true;
  drawList();
}

function listen() {
  window.addEventListener('hashchange', draw);
  document.addEventListener('keydown', onKey);
  find('search').addEventListener('input', startSearch);
  find('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    finishSearch();
    find('list').focus({ preventScroll: true });
  });
  find('skip').addEventListener('click', (event) => {
    event.preventDefault(); // its address would take the place of the state
    goToAndFocus({ tab: 'texts' }, 'list');
  });
  find('list').addEventListener('scroll', drawList);
  window.addEventListener('resize', coverPage);
  new ResizeObserver(drawList).observe(find('list'));
  window.addEventListener('beforeprint', () => setPrinting(true));
  window.addEventListener('afterprint', () => setPrinting(false));
}

// -----------------------------------------------------------------------------

drawHead();
drawTiles();
drawBaselines();
drawRuns();
drawLabelScores();
drawCurves();
drawReliability();
drawCommand();
drawFacets();
drawShowButtons();
// a small screen has no room for the filters beside the list
find('facets').open = window.matchMedia('(min-width: 60rem)').matches;
listen();
draw();
