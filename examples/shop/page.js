// The shop's page: the process tree from /feed, who answers from /hello, orders, and a reload.
'use strict';

const $ = (id) => document.getElementById(id);

/** A generation's colour: golden-angle steps, so that neighbours differ clearly. */
const hue = (generation) => Math.round(200 + generation * 137.5) % 360;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) {
    // Custom properties go in by script: the page's policy allows no inline styles.
    if (key.startsWith('--')) made.style.setProperty(key, value);
    else made.setAttribute(key, value);
  }
  return made;
}

function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

const megabytes = (bytes) => (bytes ? `${(bytes / 1048576).toFixed(1)} MB` : '–');
const count = (n) => (n ?? 0).toLocaleString('en');

// ---- who works -----------------------------------------------------------------------------

const DEPTH = { master: 0, manager: 1, template: 2, worker: 2, task_worker: 2 };
const known = new Set();

function row(process) {
  const name = process.role.replace('_', ' ');
  const line = element('tr', undefined, { '--hue': hue(process.generation || 0) });
  if (process.state === 'draining') line.className = 'draining';
  else if (known.size && !known.has(process.pid)) line.className = 'fresh';

  const numbered = process.worker_id !== null && process.worker_id !== undefined;
  const depth = DEPTH[process.role] ?? 2;
  const title = element('th', numbered ? `${name} ${process.worker_id}` : name, {
    scope: 'row',
    class: depth ? 'child' : 'root',
    '--depth': depth,
  });
  const generation = element('td');
  if (process.generation) generation.append(element('span', process.generation, { class: 'generation' }));

  const works = process.role === 'worker' || process.role === 'task_worker';
  line.append(
    title,
    generation,
    element('td', process.pid),
    element('td', process.state ?? '', { class: 'state' }),
    element('td', works ? count(process.role === 'worker' ? process.requests : process.tasks) : ''),
    element('td', works ? count(process.in_flight) : ''),
    element('td', process.role === 'worker' ? count(process.connections) : ''),
    element('td', megabytes(process.memory_bytes)),
  );
  return line;
}

function order(processes) {
  const rank = (p) => [DEPTH[p.role] ?? 2, -(p.generation || 0), p.role === 'template' ? -1 : (p.worker_id ?? 0)];
  return [...processes].sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    return x[0] - y[0] || x[1] - y[1] || x[2] - y[2];
  });
}

function showStatus(status) {
  $('release').textContent = status.release;
  $('generation').textContent = status.generation;
  $('uptime').textContent = duration(status.uptime_ms);
  $('requests').textContent = count(status.totals?.requests);

  const table = element('table');
  table.append(element('caption', 'Processes of the server'));
  const head = element('tr');
  for (const title of ['Process', 'Gen.', 'Pid', 'State', 'Done', 'In hand', 'Conn.', 'Memory']) {
    head.append(element('th', title, { scope: 'col' }));
  }
  const [top, body] = [element('thead'), element('tbody')];
  top.append(head);
  const processes = order(status.processes ?? []);
  body.append(...processes.map(row));
  table.append(top, body);
  $('tree').replaceChildren(table);

  known.clear();
  for (const process of processes) known.add(process.pid);
}

/** Keeps the feed open. It lives through reloads; when a worker dies with it, it is opened again. */
function feed(attempt = 0) {
  const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/feed`);
  let heard = false;
  socket.onmessage = (message) => {
    heard = true;
    $('feed-state').textContent = '';
    try {
      showStatus(JSON.parse(message.data));
    } catch (error) {
      console.warn('feed', error);
    }
  };
  socket.onclose = () => {
    const next = heard ? 0 : attempt + 1;
    // Said only when it lasts.
    if (next > 2) $('feed-state').textContent = 'the feed is away, trying again';
    setTimeout(feed, Math.min(5000, 100 * 2 ** next), next);
  };
}

// ---- who answers ---------------------------------------------------------------------------

const KEPT = 48;

function mark(text, attributes) {
  const marks = $('answers');
  marks.append(element('li', text, attributes));
  while (marks.children.length > KEPT) marks.firstChild.remove();
}

async function ask() {
  const begun = performance.now();
  try {
    const response = await fetch('hello', { cache: 'no-store', signal: AbortSignal.timeout(10000) });
    const text = await response.text();
    const took = performance.now() - begun;
    const generation = Number(response.headers.get('x-generation'));
    // A tenth of the height for 1 ms, half for 32, all for a second.
    const height = Math.min(1, 0.1 + 0.09 * Math.log2(Math.max(1, took)));
    const build = response.headers.get('x-build');
    mark(generation, {
      '--hue': hue(generation),
      '--took': height.toFixed(2),
      title: `${text} · ${took.toFixed(1)} ms`,
    });
    $('answer').textContent = `${text} · build ${build} · ${took.toFixed(1)} ms`;
  } catch (error) {
    mark('×', { class: 'failed', title: String(error) });
    $('answer').textContent = `no answer: ${error.message}`;
  }
}

/** One at a time, a second apart, and none while nobody looks. */
async function askOn() {
  if (!document.hidden) await ask();
  setTimeout(askOn, 1000);
}

// ---- the counter ---------------------------------------------------------------------------

async function sums() {
  try {
    const { paid, shipped } = await (await fetch('orders', { cache: 'no-store' })).json();
    $('paid').textContent = count(paid);
    $('shipped').textContent = count(shipped);
    $('balance').textContent =
      paid === shipped ? 'The books balance.' : `${count(paid - shipped)} paid, on the way to the parcel.`;
  } catch {
    $('balance').textContent = '';
  }
}

async function place(item, quantity) {
  const line = element('li');
  const state = element('span', 'paying…');
  line.append(element('span', `${quantity} × ${item}`), state);
  const orders = $('orders');
  orders.prepend(line);
  while (orders.children.length > 8) orders.lastChild.remove();
  try {
    const response = await fetch('orders', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ item, quantity }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    state.textContent = `no. ${answer.id} ${answer.state}`;
  } catch (error) {
    line.className = 'failed';
    state.textContent = error.message;
  }
}

$('order').addEventListener('submit', async (event) => {
  event.preventDefault();
  const fields = new FormData(event.target);
  await place(fields.get('item'), Number(fields.get('quantity')));
  await sums();
});

$('rush').addEventListener('click', async (event) => {
  const button = event.currentTarget;
  const fields = new FormData($('order'));
  button.disabled = true;
  let left = 20;
  const customer = async () => {
    while (left-- > 0) await place(fields.get('item') || 'lamp', Number(fields.get('quantity')) || 1);
  };
  await Promise.all(Array.from({ length: 5 }, customer));
  button.disabled = false;
  await sums();
});

// ---- reload --------------------------------------------------------------------------------

$('reload').addEventListener('click', async (event) => {
  const button = event.currentTarget;
  const outcome = $('outcome');
  if (button.getAttribute('aria-busy') === 'true') return;
  button.setAttribute('aria-busy', 'true');
  outcome.className = '';
  outcome.textContent = 'Starting the next generation…';
  try {
    const response = await fetch('admin/reload', { method: 'POST' });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error ?? response.statusText);
    if (answer.outcome === 'committed') {
      outcome.className = 'good';
      outcome.textContent = `Generation ${answer.generation} took over in ${answer.duration_ms} ms.`;
    } else {
      outcome.className = 'bad';
      outcome.textContent =
        `${answer.outcome.replace('_', ' ')}: ${answer.reason ?? 'no reason given'}. Generation ${answer.generation} goes on.`;
      if (answer.output) outcome.append(element('pre', answer.output.trimEnd()));
    }
  } catch (error) {
    outcome.className = 'bad';
    outcome.textContent = `Not reloaded: ${error.message}`;
  } finally {
    button.removeAttribute('aria-busy');
  }
});

feed();
askOn();
sums();
setInterval(() => document.hidden || sums(), 5000);
