// TAP: spec/viewer.html, opened from file:// in headless Chromium (CHROMIUM), which is driven through the pipe of its
// DevTools protocol. A batch with pictures, text that looks like markup, and numbers in every packing is dropped on it,
// then files that break a rule.
// With a folder as argument it leaves pictures of the page there, to be looked at. Run by tests/viewer.sh.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import zlib from 'node:zlib';
import { crc32c, open } from '../spec/reader.mjs';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
process.chdir(ROOT);
const TOOL = process.env.PACKBUF_TOOL ?? 'build/packbuf';
const tmp = fs.mkdtempSync(path.join(os.tmpdir(), 'viewer-'));
let count = 0;
let failed = 0;

/** One test: passes when no problem is found. */
async function test(name, find) {
  const problems = [];
  try {
    await find((holds, problem) => holds || problems.push(String(problem)));
  } catch (error) {
    problems.push(error.stack);
  }
  count++;
  failed += problems.length > 0;
  console.log(`${problems.length ? 'not ok' : 'ok'} ${count} - ${name}`);
  for (const problem of problems) console.log(`# ${problem.slice(0, 1500).replace(/\n/g, '\n# ')}`);
}

// ---- the browser ----

/** Chromium, asked through a pipe: messages of JSON that end with a zero byte. */
class Browser {
  constructor() {
    const options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
      '--remote-debugging-pipe', `--user-data-dir=${tmp}/profile`];
    this.process = spawn(process.env.CHROMIUM, options, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    this.waiting = new Map();
    this.heard = [];
    this.id = 0;
    let text = '';
    this.process.stdio[4].on('data', (data) => {
      text += data;
      const messages = text.split('\0');
      text = messages.pop();
      messages.map((message) => JSON.parse(message)).forEach((message) => this.hear(message));
    });
  }

  hear(message) {
    if (!message.id) {
      this.heard.push(message);
      return;
    }
    const { resolve, reject } = this.waiting.get(message.id);
    if (message.error) reject(new Error(message.error.message));
    else resolve(message.result);
  }

  ask(method, params = {}, sessionId = this.session) {
    return new Promise((resolve, reject) => {
      this.waiting.set(++this.id, { resolve, reject });
      this.process.stdio[3].write(`${JSON.stringify({ id: this.id, method, params, sessionId })}\0`);
    });
  }

  async open(url) {
    const { targetId } = await this.ask('Target.createTarget', { url: 'about:blank' });
    this.session = (await this.ask('Target.attachToTarget', { targetId, flatten: true })).sessionId;
    for (const domain of ['Page', 'Runtime', 'DOM', 'Network', 'Log']) await this.ask(`${domain}.enable`);
    await this.resize(1360, 900);
    await this.ask('Page.navigate', { url });
    await this.until('document.readyState === "complete"');
  }

  resize(width, height) {
    return this.ask('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
  }

  scheme(value) {
    return this.ask('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value }] });
  }

  /** The value of an expression in the page. */
  async value(expression) {
    const asked = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails: thrown } = await this.ask('Runtime.evaluate', asked);
    if (thrown) throw new Error(`${expression}: ${thrown.exception?.description ?? thrown.text}`);
    return result.value;
  }

  async until(expression) {
    for (let i = 0; i < 400; i++) {
      if (await this.value(expression).catch(() => false)) return;
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
    const shown = await this.value('document.body.innerText');
    throw new Error(`never: ${expression}; the page has ${shown.slice(0, 500)}`);
  }

  /** Gives a file to the page, as a user does who chooses it; waits until it is valid or refused. */
  async choose(file, end = '["valid", "refused"].includes(document.body.dataset.state)') {
    await this.value('delete document.body.dataset.state; $("file").value = ""');
    const { root } = await this.ask('DOM.getDocument');
    const { nodeId } = await this.ask('DOM.querySelector', { nodeId: root.nodeId, selector: '#file' });
    await this.ask('DOM.setFileInputFiles', { nodeId, files: [path.resolve(file)] });
    await this.until(end);
  }

  /** Selects the node of a path and waits for its rows. */
  async select(nodePath) {
    await this.value(`(async () => {
      const items = [...document.querySelectorAll('[role=treeitem]')];
      const item = items.find((i) => i.dataset.path === ${JSON.stringify(nodePath)});
      await expand(item, true); await select(item.about.index);
    })()`);
  }

  async key(key) {
    await this.ask('Input.dispatchKeyEvent', { type: 'keyDown', key });
    await this.ask('Input.dispatchKeyEvent', { type: 'keyUp', key });
    await this.value('new Promise((resolve) => setTimeout(resolve, 60))');
  }

  text(selector) {
    return this.value(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ''`);
  }

  async picture(name) {
    if (!process.argv[2]) return;
    const { data } = await this.ask('Page.captureScreenshot', { captureBeyondViewport: false });
    fs.writeFileSync(path.join(process.argv[2], `${name}.png`), Buffer.from(data, 'base64'));
  }

  async close() {
    await this.ask('Browser.close', {}, undefined).catch(() => null);
    await new Promise((resolve) => { this.process.once('exit', resolve); });
  }
}

// ---- what is looked at ----

/** A png of coloured squares. */
function png(width, height, hue) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(zlib.crc32 ? zlib.crc32(body) : crc32(body), 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const pixels = Buffer.alloc((width * 3 + 1) * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const pixel = [(hue + x * 2) & 255, (hue * 2 + y * 2) & 255, 128 + ((x ^ y) & 63)];
      pixels.set(pixel, y * (width * 3 + 1) + 1 + 3 * x);
    }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2], 8);
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', header),
    chunk('IDAT', zlib.deflateSync(pixels)), chunk('IEND', Buffer.alloc(0))]);
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >>> 1 ^ 0xEDB88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

const SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>document.title = "SVG ran"</script></svg>';
const HTML = '<img src=x onerror="document.title=\'HTML ran\'"><b>bold</b>';
const b64 = (data) => Buffer.from(data).toString('base64');
const media = (mime, data, more) => ({ $media: { mime, ...more, data: b64(data) } });

/** A batch as a rollout makes it, with pictures, and with text that must stay text. */
function batch() {
  const rows = [];
  for (let i = 0; i < 240; i++) {
    const tokens = Array.from({ length: 120 + i % 50 * 7 },
      (_, j) => (j < 80 ? 1000 + j * 37 % 911 : (i * 7919 + j * 104729) % 150000));
    rows.push({
      uid: `gsm8k-${1000 + (i >> 3)}-${i & 7}`,
      prompt: i ? `Natalia sold clips to ${i >> 3} of her friends in April. How many did she sell?` : HTML,
      tokens, response_mask: tokens.map((_, j) => (j < 80 ? 0 : 1)),
      logprobs: tokens.map((_, j) => (j < 80 ? -1e-3 : -((i * 31 + j * 17) % 997 + 0.5) / 400)),
      reward: i % 9 ? (i % 4) / 4 : null, step: 7, [HTML]: i % 2 ? 1 : null,
      image: i < 8 ? media('image/png', png(96, 72, i * 23)) : i === 8 ? media('image/svg+xml', SVG)
        : i === 9 ? media('text/html', HTML) : null,
      frames: i % 3 ? [media('image/png', png(32, 32, i)), media('image/png', png(24, 32, i + 40))] : [],
      meta: {
        source: i % 2 ? 'tau-bench' : 'gsm8k', tools: i % 5 ? [{ name: 'search', args: { q: 'a\nb' } }] : null,
        lr: 1e-6 * i, 'key.with.dots': i,
      },
    });
  }
  return rows.map((row) => JSON.stringify(row)).join('\n');
}

/** The head of a buffer of 2^24 rows of 64 bytes, whose data may be a hole in a file. */
function large() {
  const header = Buffer.from("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 64), }".padEnd(117) + '\n');
  const magic = Buffer.from('\x93NUMPY\x01\x00\x76\x00', 'latin1');
  const elements = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  fs.writeFileSync(`${tmp}/bytes.npy`, Buffer.concat([magic, header, elements]));
  execFileSync(TOOL, ['pack', `${tmp}/bytes.npy`, '--packing', 'none', '--no-checksums', '-o', `${tmp}/small.pbuf`]);
  const small = fs.readFileSync(`${tmp}/small.pbuf`);
  const { head_length: head } = open(small).header;
  const bytes = Buffer.concat([small.subarray(0, head), Buffer.from(Array.from({ length: 256 }, (_, i) => i))]);
  const rows = 2 ** 24;
  for (const [at, n] of [[24, head + 64 * rows], [48, rows], [128 + 48, rows], [192 + 16, 64 * rows],
    [192 + 32, 64 * rows]]) bytes.writeBigUInt64LE(BigInt(n), at);
  bytes.writeUInt32LE(0, 60);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, head)), 60);
  return bytes;
}

fs.writeFileSync(`${tmp}/rows.jsonl`, batch());
const values = { policy_version: 41, sampler: { temperature: 0.7, top_p: 1.0 } };
fs.writeFileSync(`${tmp}/values.json`, JSON.stringify(values));
execFileSync(TOOL, ['pack', `${tmp}/rows.jsonl`, '--values', `${tmp}/values.json`, '--metadata', 'tokenizer=Qwen2.5',
  '--metadata', `note=${HTML}`, '-o', `${tmp}/rollout.pbuf`]);

const browser = new Browser();
const url = pathToFileURL('spec/viewer.html').href;
try {
  await browser.open(url);

  await test('the page waits for a file, and has no network', async (ok) => {
    const empty = await browser.value('getComputedStyle($("empty")).display !== "none" && $("view").hidden');
    ok(empty, 'no place to drop a file');
    const fetched = await browser.value('fetch("https://example.com").then(() => "fetched", () => "refused")');
    ok(fetched === 'refused', fetched);
    await browser.picture('empty-light');
  });

  await test('a batch: summary, tree, map, buffers and rows', async (ok) => {
    await browser.choose(`${tmp}/rollout.pbuf`);
    ok((await browser.text('#status')) === 'Valid', await browser.text('#status'));
    const facts = await browser.text('#facts');
    ok(/Rows\s+240/.test(facts) && /Fields\s+11/.test(facts) && /balanced/.test(facts), facts);
    const paths = await browser.value(
      '[...document.querySelectorAll("[role=treeitem]")].map((item) => item.dataset.path)');
    ok(paths.includes('tokens') && paths.includes('policy_version'), paths);
    const ranges = await browser.value('[...document.querySelectorAll("#track .range")]'
      + '.map((r) => [r.about.from, r.about.to, r.about.part])');
    const whole = ranges[0][0] === 0 && ranges.at(-1)[1] === fs.statSync(`${tmp}/rollout.pbuf`).size;
    ok(ranges.length > 8 && whole, JSON.stringify(ranges.slice(0, 3)));
    ok(ranges.every(([from], i) => i === 0 || from === ranges[i - 1][1]), 'a gap in the map');
    await browser.select('tokens');
    const buffers = await browser.text('#buffers');
    ok(/data/.test(buffers) && /offsets/.test(buffers) && /blocks/.test(buffers), buffers);
    ok(/1000 1037 1074/.test((await browser.text('#rows')).replace(/,/g, '')), await browser.text('#rows'));
    await browser.picture('batch-light');
  });

  await test('pictures are pictures; SVG and HTML are text', async (ok) => {
    await browser.select('image');
    const images = '[...document.querySelectorAll("#rows img")]';
    await browser.until(`${images}.length === 8 && ${images}.every((i) => i.complete)`);
    const sizes = await browser.value(
      `${images}.map((i) => [i.naturalWidth, i.naturalHeight, i.src.slice(0, 5)])`);
    ok(!(await browser.text('#rows')).includes('picture 1'), 'a picture alone needs no number');
    ok(sizes.every(([w, h, scheme]) => w === 96 && h === 72 && scheme === 'blob:'), JSON.stringify(sizes));
    const rows = await browser.text('#rows');
    ok(/image\/svg\+xml/.test(rows) && /text\/html/.test(rows), rows);
    await browser.picture('images-light');
    await browser.select('prompt');
    ok((await browser.text('#rows')).includes('<b>bold</b>'), await browser.text('#rows'));
    const markup = await browser.value(
      'document.querySelectorAll("main svg, main b:not([style]), main script, main iframe").length');
    ok(markup === 0, 'markup of the file is in the page');
    ok(!/ran/.test(await browser.value('document.title')), await browser.value('document.title'));
  });

  await test('pictures in lists are numbered; one of more pixels than a page may have is not drawn', async (ok) => {
    await browser.select('frames');
    const rows = await browser.text('#rows');
    ok(/\[\]/.test(rows) && /\[picture 1, picture 2\]/.test(rows) && /picture 2: mime image\/png/.test(rows), rows);
    const large = png(8, 8, 1);
    large.writeUInt32BE(40000, 16);
    large.writeUInt32BE(40000, 20);
    const jpeg = (height) => Buffer.from([0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 0, 0, 0xFF, 0xC2, 0, 11, 8, height, 0, height,
      0, ...Array(20).fill(0)]);
    const gif = (width) => Buffer.from([...Buffer.from('GIF89a'), 1, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 255, 255, 255,
      0x21, 0xF9, 4, 0, 0, 0, 0, 0, 0x2C, 0, 0, 0, 0, 0, width, 0, width, 0]);
    const webp = Buffer.from([...Buffer.from('RIFF0000WEBPVP8X'), ...Array(8).fill(0),
      0xFF, 0xFF, 0x3F, 0xFF, 0xFF, 0x3F, 0, 0]);
    const cut = Buffer.concat([png(8, 8, 1).subarray(0, 20), Buffer.alloc(9)]);
    const pictures = [large, jpeg(200), gif(200), webp, cut, png(8, 8, 1)];
    const lines = pictures.map((data) => JSON.stringify({ image: media('image/png', data) }));
    fs.writeFileSync(`${tmp}/bombs.jsonl`, lines.join('\n'));
    execFileSync(TOOL, ['pack', `${tmp}/bombs.jsonl`, '-o', `${tmp}/bombs.pbuf`]);
    await browser.choose(`${tmp}/bombs.pbuf`);
    await browser.select('image');
    const drawn = await browser.value('[...document.querySelectorAll("#rows img, #rows canvas, #rows .soft")].length');
    const said = (await browser.text('#rows')).split('too many pixels').length - 1;
    ok(drawn === 1 && said === 4, `${drawn} drawn, ${said} refused: ${await browser.text('#rows')}`);
    await browser.choose(`${tmp}/rollout.pbuf`);
  });

  await test('the tree by keyboard', async (ok) => {
    await browser.value('focusItem(document.querySelector("[role=treeitem]"))');
    const focused = () => browser.value('document.activeElement.dataset.path');
    await browser.key('ArrowDown');
    ok((await focused()) === 'prompt', await focused());
    await browser.value(
      'focusItem([...document.querySelectorAll("[role=treeitem]")].find((i) => i.dataset.path === "meta"))');
    await browser.key('ArrowLeft');
    await browser.key('ArrowRight');
    await browser.key('ArrowRight');
    ok((await focused()) === 'meta.source', await focused());
    await browser.key('End');
    await browser.key('Home');
    ok((await focused()) === 'uid', await focused());
    await browser.key('ArrowDown');
    ok((await browser.value('document.querySelectorAll("[aria-selected=true]").length')) === 1, 'one node is selected');
  });

  await test('the map zooms', async (ok) => {
    await browser.value('zoom(0, state.summary.head)');
    const whats = await browser.value('[...document.querySelectorAll("#track .range")].map((r) => r.about.what)');
    ok(whats[0] === 'file header' && whats.includes('strings') && whats.includes('nodes'), whats);
    await browser.value('$("track").focus()');
    await browser.key('-');
    const [from, to, head] = await browser.value('[state.from, state.to, state.summary.head]');
    ok(to - from === 2 * head, `${from} ${to}`);
    await browser.value('zoom(0, state.summary.total)');
  });

  await test('dark, and narrow', async (ok) => {
    await browser.scheme('dark');
    await browser.select('image');
    const colour = await browser.value('getComputedStyle(document.documentElement).backgroundColor');
    ok(colour === 'rgb(18, 19, 21)', `not dark: ${colour}`);
    await browser.picture('images-dark');
    await browser.select('meta');
    await browser.picture('batch-dark');
    await browser.resize(420, 900);
    await browser.value('new Promise((resolve) => setTimeout(resolve, 300))');
    const wide = await browser.value('document.documentElement.scrollWidth');
    ok(wide <= 420, `${wide} wide`);
    await browser.picture('narrow-dark');
    await browser.scheme('light');
    await browser.picture('narrow-light');
    await browser.value('scrollTo(0, 1100)');
    await browser.picture('narrow-light-2');
    await browser.resize(1360, 900);
  });

  await test('a file that breaks a rule is refused with its name, place and sentence', async (ok) => {
    const index = fs.readFileSync('spec/vectors/invalid/index.tsv', 'utf8').split('\n').map((line) => line.split('\t'));
    for (const rule of ['H2', 'H8', 'N5', 'B11', 'S3', 'I5', 'I15', 'D1', 'D6', 'D7', 'D8', 'D9']) {
      const [name, , , error, offset] = index.find((line) => line[2] === rule);
      await browser.choose(`spec/vectors/invalid/${name}`);
      const text = await browser.text('#refusal');
      const place = `${offset.replace(/\B(?=(\d{3})+$)/g, '\u202f')} (0x`;
      ok(text.includes(rule) && text.includes(error) && text.includes(place), `${name}: ${text}`);
      ok((await browser.text('#status')) === 'Refused', await browser.text('#status'));
      if (['H2', 'I5', 'D7'].includes(rule)) await browser.picture(`refused-${rule}`);
    }
    await browser.choose('README.md');
    ok((await browser.text('#refusal')).includes('BAD_MAGIC'), await browser.text('#refusal'));
  });

  await test('odd files: no rows, unknown codecs, manifests, every codec', async (ok) => {
    for (const name of ['zero_rows', 'empty', 'unknown_codec', 'unknown_packing_inside', 'manifest',
      'everything_stored', 'depth_64', 'names', 'media', 'float_payloads', 'msgpack']) {
      await browser.choose(`spec/vectors/valid/${name}.pbuf`);
      ok((await browser.text('#status')) === 'Valid', `${name}: ${await browser.text('#refusal')}`);
      await browser.until('document.querySelectorAll("[role=treeitem]").length === 0 '
        + '|| document.querySelector("#rows table") !== null');
    }
  });

  await test('a file of 1 GiB: only what is shown is read', async (ok) => {
    const head = large();
    fs.writeFileSync(`${tmp}/large.pbuf`, head);
    fs.truncateSync(`${tmp}/large.pbuf`, Number(head.readBigUInt64LE(24)));
    await browser.choose(`${tmp}/large.pbuf`,
      'document.body.dataset.state === "open" && document.querySelector("#rows table")');
    const facts = await browser.text('#facts');
    ok((await browser.text('#status')) === 'Head is valid' && facts.includes('1.07 GB'), facts);
    await browser.value('showRows({ index: 0, rows: 2 ** 24 }, $("rows"), 2 ** 24 - 5)');
    ok((await browser.text('#rows')).includes('16777215'), await browser.text('#rows'));
    const read = await browser.value('state.worker.ask("readBytes")');
    ok(read < 2 ** 23, `${read} bytes read`);
    await browser.picture('large');
  });

  await test('nothing went wrong in the page, and nothing was asked of a network', async (ok) => {
    const isWrong = ({ level, text, url }) => level === 'error' && !/example\.com/.test(`${text}${url}`);
    const wrong = browser.heard.filter(({ method, params }) =>
      method === 'Runtime.exceptionThrown' || (method === 'Log.entryAdded' && isWrong(params.entry)));
    ok(wrong.length === 0, JSON.stringify(wrong.slice(0, 3)));
    const requests = browser.heard.filter(({ method }) => method === 'Network.requestWillBeSent');
    const asked = requests.map(({ params }) => params.request.url)
      .filter((url) => !/^(file|blob|data):|example\.com/.test(url));
    ok(asked.length === 0, asked);
  });
} finally {
  await browser.close();
  fs.rmSync(tmp, { recursive: true, force: true });
}
console.log(`1..${count}`);
process.exitCode = failed ? 1 : 0;
