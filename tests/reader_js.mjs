// TAP: spec/reader.mjs against the spec. It reads every valid vector as the tagged JSON beside it, and finds in every
// invalid one the rule, error, offset and level that index.tsv names; its tables are those of packbuf.md; what the
// command packs from data of no vector, in every packing, it reads as spec/reader.py and `packbuf unpack` do; and bytes
// that were flipped or cut are refused or read, and nothing else.
// May use: spec/, build/packbuf (or PACKBUF_TOOL), python3. Run by tests/reader_js.sh.
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Media, Opaque, Packed, PackbufError, Pairs, Tensor, ERRORS, LIMITS, ROLE, RULES, crc32c, equal, join, open }
  from '../spec/reader.mjs';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
process.chdir(ROOT);
const TOOL = process.env.PACKBUF_TOOL ?? 'build/packbuf';
const VALID = 'spec/vectors/valid';
const tmp = fs.mkdtempSync(path.join(os.tmpdir(), 'reader_js-'));
process.on('exit', () => fs.rmSync(tmp, { recursive: true }));
let count = 0;
let failed = 0;

/** One test: passes when no problem is found, and nothing is thrown. */
function test(name, find) {
  let problems;
  try {
    problems = [...find()];
  } catch (error) {
    problems = error.stack.split('\n');
  }
  count++;
  failed += problems.length > 0;
  console.log(`${problems.length ? 'not ok' : 'ok'} ${count} - ${name}`);
  for (const problem of problems.slice(0, 20)) console.log(`# ${problem.slice(0, 500)}`);
}

const valid = () => fs.readdirSync(VALID).filter((name) => name.endsWith('.pbuf'));
const bytesOf = (name) => new Uint8Array(fs.readFileSync(name));
const vector = (name) => open(bytesOf(`${VALID}/${name}.pbuf`), { file: true });
const run = (command, ...args) =>
  execFileSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 30, stdio: ['ignore', 'pipe', 'pipe'] });

/** What it is refused with: rule, error and offset; '' when it is not. */
function refusal(read) {
  try {
    read();
    return '';
  } catch (error) {
    if (!(error instanceof PackbufError)) throw error;
    return `${error.rule} ${error.error} ${error.offset}`;
  }
}

// ---- the vectors ----

test('every valid vector reads as its tagged JSON', function* () {
  for (const name of valid()) {
    const text = `${open(bytesOf(`${VALID}/${name}`), { file: true }).toJson()}\n`;
    const expected = fs.readFileSync(`${VALID}/${name.replace(/pbuf$/, 'json')}`, 'utf8');
    if (text !== expected) yield `${name}: not the tagged JSON beside it`;
  }
});

function* invalid() {
  const lines = fs.readFileSync('spec/vectors/invalid/index.tsv', 'utf8').trim().split('\n');
  for (const line of lines) yield line.split('\t');
}

test('every invalid vector breaks its rule, at its level and place', function* () {
  for (const [name, level, rule, error, offset] of invalid()) {
    const bytes = bytesOf(`spec/vectors/invalid/${name}`);
    for (const at of ['head', 'index', 'full']) {
      const found = refusal(() => open(bytes, { file: true }).verify(at));
      if (found !== (at === level ? `${rule} ${error} ${offset}` : '')) yield `${name}, level ${at}: ${found}`;
      if (at === level) break;
    }
  }
});

test('what is read without verify is refused, or what the vector says', function* () {
  for (const [name] of invalid()) {
    const read = () => {
      const packed = open(bytesOf(`spec/vectors/invalid/${name}`), { limits: { result_bytes: 2 ** 22 } });
      for (const node of [...packed.fields.values(), ...packed.values.values()])
        for (let row = 0; row < Math.min(node.rows, 100); row++) node.cell(row);
    };
    refusal(read); // a throw of anything else fails the test
  }
});

test('the layout of every valid vector covers it without gaps', function* () {
  for (const name of valid()) {
    let at = 0;
    const packed = open(bytesOf(`${VALID}/${name}`));
    for (const range of packed.layout()) {
      if (range.from !== at || range.to <= range.from) yield `${name}: ${range.what} at ${range.from}, not ${at}`;
      at = range.to;
    }
    if (at !== packed.header.total_length) yield `${name}: ends at ${at}`;
  }
});

// ---- the tables of the page ----

const page = fs.readFileSync('spec/packbuf.md', 'utf8');

test('rules, errors and limits are those of packbuf.md', function* () {
  const rows = page.matchAll(/^\| ([HNBMSID]\d+) \| ([A-Z0-9_]+) \| (.*?) \|/gm);
  const rules = [...rows].map(([, rule, error, holds]) => `${rule} ${error} ${holds}`);
  const ours = [...RULES].map(([rule, { error, holds }]) => `${rule} ${error} ${holds}`);
  if (rules.join('\n') !== ours.join('\n')) yield 'the rules differ';
  const table = page.split('<!-- ERRORS_TABLE -->')[1].split('<!-- end')[0];
  const numbers = table.matchAll(/^\| (\d+) \| (\w+) \|/gm);
  const errors = Object.fromEntries([...numbers].map(([, number, name]) => [name, Number(number)]));
  if (JSON.stringify(errors) !== JSON.stringify(ERRORS)) yield 'the errors differ';
  for (const [, name, value] of page.split('## 15.')[1].matchAll(/^\| (\w+) \| ([0-9^]+) \|/gm))
    if (LIMITS[name] !== Number(value.split('^')[0]) ** Number(value.split('^')[1] ?? 1)) yield `limit ${name}`;
});

test('viewer.html carries this reader', function* () {
  run('python3', 'tools/viewer.py', '--check');
});

// ---- schema and fragments ----

test('schema texts, fingerprints and the command line are those of reader.py', function* () {
  const names = valid().map((name) => `${VALID}/${name}`);
  for (const args of [['--schema', ...names], [`${VALID}/nested.pbuf`], ['--verify', `${VALID}/nested.pbuf`],
    ['--verify', 'head', 'spec/vectors/invalid/i1_bit.pbuf']])
    if (run('node', 'spec/reader.mjs', ...args) !== run('python3', 'spec/reader.py', ...args)) yield args.join(' ');
  try {
    run('node', 'spec/reader.mjs', '--verify', 'index', 'spec/vectors/invalid/i5_value.pbuf');
    yield 'an invalid file is no failure';
  } catch (error) {
    const { status, stdout } = error;
    if (status !== 1 || !/^I5 BAD_MASK \d+ d\.x .+\n$/.test(stdout)) yield `${status} ${stdout}`;
  }
});

test('a manifest lists its fragments', function* () {
  const fragments = vector('manifest').fragments();
  if (fragments.length === 0) yield 'none';
  for (const fragment of fragments)
    if (typeof fragment.key !== 'string' || !['rows', 'fields'].includes(fragment.appends)) yield fragment.key;
  if (refusal(() => vector('ints').fragments()) !== ' WRONG_TYPE -1') yield 'a batch is no manifest';
});

const FRAGMENTS = ['fragment_rows_0', 'fragment_rows_1', 'fragment_fields'];
const fragmentBytes = () => FRAGMENTS.map((name) => bytesOf(`${VALID}/${name}.pbuf`));

/** What joining is refused with: error, fragment, row and path. */
function joinRefusal(make) {
  try {
    make();
    return '';
  } catch (error) {
    if (!(error instanceof PackbufError)) throw error;
    return [error.error, error.fragment, error.row, error.path].join(' ').trim();
  }
}

test('a manifest\'s fragments are joined as the command joins them', function* () {
  const list = vector('manifest_fragments').fragments();
  const whole = join(fragmentBytes(), { list });
  const files = FRAGMENTS.map((name) => `${VALID}/${name}.pbuf`);
  run(TOOL, 'concat', '--manifest', `${VALID}/manifest_fragments.pbuf`, ...files, '-o', `${tmp}/whole.pbuf`);
  const expected = open(bytesOf(`${tmp}/whole.pbuf`));
  const names = [...whole.fields.keys()].join();
  if (whole.rows !== 3 || names !== [...expected.fields.keys()].join()) yield names;
  for (const [name, node] of expected.fields) if (!equal(whole.field(name).cells(), node.cells())) yield name;
  for (let row = 0; row < 3; row++) if (!equal(whole.row(row), expected.row(row))) yield `row ${row}`;
  if (!equal(whole.field('text').cells([2, 0]), ['c', 'a'])) yield 'a selection';
  if (!equal(whole.values.map((name) => whole.value(name)), [7n])) yield 'batch values';
});

test('a list or fragments that do not fit are refused by error and fragment', function* () {
  const list = vector('manifest_fragments').fragments();
  const changed = (i, change) => ({ list: list.map((f, k) => (k === i ? { ...f, ...change } : f)) });
  const [a, b, fields] = fragmentBytes();
  const other = bytesOf(`${VALID}/ints.pbuf`);
  const renamed = (from, to) => {
    const bytes = fields.slice();
    bytes.set(new TextEncoder().encode(to), Buffer.from(bytes).indexOf(from));
    reseal(bytes);
    return [bytes, { head_checksum: BigInt(open(bytes).header.head_checksum) }];
  };
  const withoutToken = [a, b, fields].map((bytes) => {
    const changedBytes = bytes.slice();
    changedBytes.fill(0, 104, 120);
    reseal(changedBytes);
    return changedBytes;
  });
  const checksumOf = (bytes) => BigInt(open(bytes).header.head_checksum);
  const ofThese = (fragments) => ({ list: list.map((f, i) => ({ ...f, head_checksum: checksumOf(fragments[i]) })) });
  const mixed = [a, b, withoutToken[2]];
  const broken = b.slice();
  broken[130] ^= 1;
  const cases = [
    ['another order', [b, a, fields], { list }, 'FRAGMENT_MISMATCH 0 -1'],
    ['another head', [a, b, fields], changed(1, { head_checksum: 0n }), 'FRAGMENT_MISMATCH 1 -1'],
    ['more rows than there are', [a, b, fields], changed(2, { first_row: 1n }), 'BAD_MANIFEST 2 -1'],
    ['a hole', [a, b, fields], changed(1, { first_row: 3n }), 'BAD_MANIFEST 1 -1'],
    ['rows beyond 2^48', [a, b, fields], changed(1, { first_row: (1n << 64n) - 1n }), 'BAD_MANIFEST 1 -1'],
    ['neither rows nor fields', [a, b, fields], changed(0, { appends: undefined }), 'BAD_MANIFEST 0 -1'],
    ['a manifest', [bytesOf(`${VALID}/manifest.pbuf`)], {}, 'FRAGMENT_MISMATCH 0 -1'],
    ['a head that is broken', [a, broken], {}, 'HEAD_CHECKSUM 1 -1'],
    ['another token', mixed, ofThese(mixed), 'ROW_ORDER 2 -1'],
    ['no token', withoutToken, ofThese(withoutToken), 'ROW_ORDER 2 -1'],
    ['a field twice', [a, b, renamed('reward', 'tokens')[0]], changed(2, renamed('reward', 'tokens')[1]),
      'DUPLICATE_NAME 2 0 tokens'],
    ['other columns', [a, other], {}, 'SCHEMA_MISMATCH 1 2 tokens'],
    ['fewer fragments than are listed', [a, b], { list }, 'INVALID_ARGUMENT -1 -1'],
  ];
  for (const [what, fragments, options, expected] of cases) {
    const found = joinRefusal(() => join(fragments, options));
    if (found !== expected) yield `${what}: ${found}`;
  }
  const wide = join([a, other], { widen: true });
  if (wide.field('tokens').cell(wide.rows - 1) !== undefined || wide.row(0).get('text') !== 'a') yield 'widened';
});

test('real rows in parts, joined, are the rows of the whole', function* () {
  const lines = fs.readFileSync('examples/sample/rows.jsonl', 'utf8').trim().split('\n');
  const pack = (name, some) => {
    fs.writeFileSync(`${tmp}/${name}.jsonl`, some.join('\n'));
    run(TOOL, 'pack', `${tmp}/${name}.jsonl`, '-o', `${tmp}/${name}.pbuf`);
    return bytesOf(`${tmp}/${name}.pbuf`);
  };
  const whole = open(pack('whole', lines));
  const half = lines.length >> 1;
  const joined = join([pack('first', lines.slice(0, half)), pack('rest', lines.slice(half))], { widen: true });
  for (let row = 0; row < whole.rows; row++) if (!equal(joined.row(row), whole.row(row))) yield `row ${row}`;
  if (joined.rows !== whole.rows) yield `${joined.rows} rows`;
});

test('a hostile manifest takes no time', function* () {
  const bytes = bytesOf(`${VALID}/manifest_odd.pbuf`);
  const begin = performance.now();
  const packed = open(bytes, { limits: { result_bytes: 2000 } });
  if (!refusal(() => packed.fragments()).startsWith('D9 LIMIT')) yield 'more is listed than may be';
  if (performance.now() - begin > 1000) yield 'slow';
});

// ---- values, selections, views ----

test('the worked example, through fields, rows, selections and arrays', function* () {
  const packed = vector('worked_example');
  const same = (name, value, expected) => (equal(value, expected) ? [] : [`${name}: ${String(value)}`]);
  const tokens = packed.field('tokens');
  const text = packed.field('text');
  yield* same('rows', [packed.rows, packed.value('step'), packed.metadata[0].value], [3, 7n, 'qwen']);
  yield* same('text', text.cells(), ['Hello world! How are you?', null, 'I see.']);
  yield* same('a range', text.cells({ from: 2, to: -1, step: -1 }), ['I see.', null, 'Hello world! How are you?']);
  yield* same('rows of a list', text.cells([2, 1, 2]), ['I see.', null, 'I see.']);
  yield* same('a mask', text.cells([false, false, true]), ['I see.']);
  yield* same('masks', [text.isValid(1), text.isMissing(1), text.isValid(0)], [false, false, true]);
  yield* same('tokens', [...tokens.cell(2).array], [40n, 151645n]);
  yield* same('an array', [...packed.field('reward').array().data], [1, 0, 0.5]);
  yield* same('offsets', [...tokens.buffer(ROLE.offsets).array()], [0n, 4n, 4n, 6n]);
  yield* same('a row', packed.row(2).get('text'), 'I see.');
  if (refusal(() => text.cell(3)) !== ' OUT_OF_RANGE -1') yield 'a row beyond the end';
  if (refusal(() => packed.field('none')) !== ' NOT_FOUND -1') yield 'a field that is not there';
});

test('elements are views of the bytes where they can be, and copies where not', function* () {
  const bytes = bytesOf(`${VALID}/worked_example.pbuf`);
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  for (const [memory, view] of [[bytes, true], [shifted.subarray(1), false]]) {
    const tokens = open(memory).field('tokens');
    const { array } = tokens.cell(0);
    if ((array.buffer === memory.buffer) !== view) yield `${view ? 'a copy' : 'a view'} of ${array.length} elements`;
    if (array[3] !== 151645n) yield `${array}`;
  }
});

test('bytes that are read by place, and not all of them', function* () {
  const bytes = bytesOf(`${VALID}/two_checksum_chunks.pbuf`);
  let read = 0;
  const packed = open({
    length: bytes.length,
    read(at, length) {
      read += length;
      return bytes.slice(at, at + length);
    },
  });
  const [node] = packed.fields.values();
  node.cell(0);
  if (read >= bytes.length) yield `${read} of ${bytes.length} bytes`;
  if (packed.toJson() !== vector('two_checksum_chunks').toJson()) yield 'not the same';
});

test('places beyond 4 GiB are exact', function* () {
  const header = Buffer.from("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 64), }".padEnd(117) + '\n');
  const elements = Array.from({ length: 256 }, (_, i) => i);
  const magic = Buffer.from('\x93NUMPY\x01\x00\x76\x00', 'latin1');
  fs.writeFileSync(`${tmp}/bytes.npy`, Buffer.concat([magic, header, Buffer.from(elements)]));
  run(TOOL, 'pack', `${tmp}/bytes.npy`, '--packing', 'none', '--no-checksums', '-o', `${tmp}/small.pbuf`);
  const bytes = bytesOf(`${tmp}/small.pbuf`);
  const { head_length: head } = open(bytes).header;
  const rows = 2 ** 33 + 3; // of 64 bytes: 512 GiB
  const view = new DataView(bytes.buffer);
  for (const [at, n] of [[24, head + 64 * rows], [48, rows], [176, rows], [208, 64 * rows], [224, 64 * rows]])
    view.setBigUint64(at, BigInt(n), true);
  reseal(bytes.subarray(0, head));
  const data = (at) => (at - head) % 251;
  const read = (at, length) =>
    (at < head ? bytes.slice(at, at + length) : Uint8Array.from({ length }, (_, i) => data(at + i)));
  const packed = open({ length: head + 64 * rows, read }, { file: true });
  const [node] = packed.fields.values();
  for (const row of [0, 2 ** 25, 2 ** 26 + 1, rows - 1])
    if (!equal(node.cell(row).bytes, read(head + 64 * row, 64))) yield `row ${row}`;
  if (refusal(() => node.cell(rows)) !== ' OUT_OF_RANGE -1') yield 'a row beyond the end';
});

test('section 16 tells values apart', function* () {
  const different = [null, undefined, [], new Map(), '', new Uint8Array(0), true, 1n, 1, '1', -0, 0,
    new Uint8Array([49]),
    new Media(new Uint8Array(0), {}), new Opaque('a', new Uint8Array(0)), new Pairs([[1n, 1n]]), new Pairs([[1, 1n]])];
  const failures = [];
  different.forEach((a, i) => different.forEach((b, j) => equal(a, b) !== (i === j) && failures.push(`${i} and ${j}`)));
  yield* failures;
  if (!equal(NaN, NaN) || !equal(new Map([['a', 1], ['b', 2]]), new Map([['b', 2], ['a', 1]]))) yield 'what is equal';
});

// ---- limits ----

test('aliases and packed buffers count toward decoded_bytes', function* () {
  for (const name of ['blocks_aliases', 'blocks_aliases_in_index', 'blocks_beside_plain', 'balanced_filled',
    'shared_index_alias']) {
    const bytes = bytesOf(`${VALID}/${name}.pbuf`);
    const verify = (level, limit) => refusal(() => open(bytes, { limits: { decoded_bytes: limit } }).verify(level));
    const { buffers } = open(bytes).load();
    const largest = Math.max(...buffers.map((b) => Number(b.rawLength)));
    let walked = 0;
    for (const data of [false, true])
      for (const b of buffers) {
        if (b.isData !== data || !b.isKnownRole || !(b.storage === 5 || b.packing === 1)) continue;
        walked += Number(b.rawLength);
        if (walked <= largest) continue;
        const found = verify(data ? 'full' : 'index', walked - 1);
        if (found !== `D9 LIMIT ${b.at + 16}`) yield `${name}: ${found}`;
      }
    const enough = Math.max(walked, largest);
    if (verify('full', enough)) yield `${name}: not valid with ${enough} bytes allowed`;
  }
});

test('result_bytes bounds what one call makes', function* () {
  const packed = open(bytesOf(`${VALID}/balanced_small_rows.pbuf`), { limits: { result_bytes: 10000 } });
  if (!refusal(() => packed.toJson()).startsWith('D9 LIMIT')) yield 'it is made';
  for (const name of ['d9_constant_2_60', 'd9_constant_2_40', 'd9_prefixes', 'd9_row_index', 'd9_text']) {
    const huge = open(bytesOf(`spec/vectors/invalid/${name}.pbuf`), { limits: { result_bytes: 2 ** 20 } });
    const [node] = huge.fields.values();
    if (!refusal(() => node.buffer(ROLE.data).array() && node.cells()).startsWith('D9 LIMIT')) yield name;
  }
});

// ---- what the command packs ----

/** A generator of numbers below 2^32 (xorshift), so that the data are the same everywhere. */
function numbersFrom(seed) {
  let x = seed;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

/** Rows of every kind that a .jsonl can hold. */
function* rowsOf(n) {
  const next = numbersFrom(2463534242);
  const b64 = (length) => Buffer.from(Array.from({ length }, () => next(256))).toString('base64');
  const words = ['rollout', 'Grüße', '报酬', '\u{1F600}', 'a "quoted" \\ line\n', ''];
  const prompt = Array.from({ length: 300 }, () => next(150000));
  for (let i = 0; i < n; i++) {
    const tokens = [...prompt.slice(0, i % 8 < 6 ? 300 : next(300)),
      ...Array.from({ length: next(90) }, () => next(150000))];
    const mask = tokens.map((_, j) => (j < 300 ? 0 : 1));
    const floats = Array.from({ length: 40 }, () => next(1000) / 1000 - (next(2) ? 0 : 0.5));
    yield {
      id: `row-${i}`, step: i * 3, reward: i % 5 ? next(100) / 7 : null, mixed: [1, 1.5, true, null][i % 4],
      big: i % 2 ? 2 ** 70 : -7, tokens, mask, floats, text: words[next(6)].repeat(next(4)),
      nested: i % 7 ? { a: { b: next(3) }, list: [[i], null, { c: 'x' }] } : null,
      any: [i, 'x', { k: [1.5] }, [], null, { $bytes: b64(next(20)) }][i % 6],
      pixels: { $media: { mime: 'image/png', height: next(9), data: b64(200) } },
      images: Array.from({ length: next(3) }, () => ({ $media: { mime: 'image/jpeg', data: b64(30) } })),
      tensor: { $tensor: { form: 'tensor', dtype: 'bfloat16', shape: [2, next(3)], data: '' } },
      keyed: { $dict: [[1, 'int'], [1.5, 'float']] },
      ...(i % 3 ? { sometimes: -i } : {}),
    };
  }
}

/** BigInts and tensors as the text of a .jsonl. */
function lineOf(row) {
  const { shape } = row.tensor.$tensor;
  row.tensor.$tensor.data = Buffer.alloc(2 * shape[0] * shape[1], 0x3F).toString('base64');
  return JSON.stringify(row).replace('1.1805916207174113e+21', '1180591620717411303424');
}

fs.writeFileSync(`${tmp}/rows.jsonl`, [...rowsOf(300)].map(lineOf).join('\n'));
fs.writeFileSync(`${tmp}/values.json`, JSON.stringify({ version: 3, tags: ['a', null], weights: [0.5, 0.25, 1e-300] }));
const inputs = [[`${tmp}/rows.jsonl`, '--values', `${tmp}/values.json`, '--metadata', 'tokenizer=qwen'],
  fs.readdirSync('examples/sample').filter((name) => name.endsWith('.npy')).map((name) => `examples/sample/${name}`)];
for (const packing of ['none', 'balanced', 'fastest', 'smallest']) {
  test(`what the command packs (${packing}) reads as reader.py and unpack read it`, function* () {
    for (const input of inputs) {
      const file = `${tmp}/batch.pbuf`;
      run(TOOL, 'pack', ...input, '--packing', packing, '-o', file);
      const packed = open(bytesOf(file), { file: true });
      if (packing !== 'none' && !packed.load().buffers.some((b) => b.isBlocks)) yield 'nothing is packed';
      const theirs = run('python3', 'spec/reader.py', file);
      if (`${packed.toJson()}\n` !== theirs) yield `${input[0]}: not what reader.py reads`;
      if (packed.rows !== 300) continue;
      const rows = run(TOOL, 'unpack', file).trim().split('\n').map((line) => JSON.parse(line));
      const ours = JSON.parse(packed.toJson()).fields;
      rows.forEach((row, i) => {
        for (const [name, cells] of Object.entries(ours)) {
          const cell = cells[i]?.$missing ? null : cells[i];
          if (JSON.stringify(row[name] ?? null) !== JSON.stringify(cell)) throw new Error(`row ${i} of ${name}`);
        }
      });
    }
  });
}

// ---- hostile bytes ----

/** Computes the checksums again, as far as the lengths in the header make sense. */
function reseal(bytes) {
  const view = new DataView(bytes.buffer);
  const [head, index] = [Number(view.getBigUint64(32, true)), Number(view.getBigUint64(40, true))];
  const data = head + index;
  if (bytes[20] & 1 && data <= bytes.length)
    for (let at = data, sum = head; at < bytes.length && sum + 4 <= bytes.length; at += 65536, sum += 4)
      view.setUint32(sum, crc32c(bytes.subarray(at, at + 65536)), true);
  if (head > bytes.length) return;
  view.setUint32(56, crc32c(bytes.subarray(head, data)), true);
  view.setUint32(60, 0, true);
  view.setUint32(60, crc32c(bytes.subarray(0, head)), true);
}

/** A vector with some bytes changed, sealed again, as this reader and reader.py answer: the refusal, or the JSON. */
function answers(name, change) {
  const bytes = bytesOf(`${VALID}/${name}.pbuf`);
  change(open(bytes.slice()).load(), bytes);
  reseal(bytes);
  fs.writeFileSync(`${tmp}/changed.pbuf`, bytes);
  const ours = refusal(() => open(bytes, { file: true }).verify()) || open(bytes).toJson();
  let theirs;
  try {
    run('python3', 'spec/reader.py', '--verify', `${tmp}/changed.pbuf`);
    theirs = run('python3', 'spec/reader.py', `${tmp}/changed.pbuf`).trim();
  } catch (error) {
    theirs = error.stdout.split(' ').slice(0, 3).join(' ');
  }
  return [ours, theirs];
}

test('what no vector shows reads as the page says, and as reader.py reads it', function* () {
  const cases = [
    ['the NaN of float8_e4m3fn', 'natural_small_floats', /"float8_e4m3fn":\[\{"\$float":"fff8000000000000"\}\]/,
      (packed, bytes) => { bytes[packed.field('float8_e4m3fn').buffer(ROLE.data).elements.place(0)] = 0xFF; }],
    ['-0.0 as bool', 'bool_and_int_in_float', /^D5 BAD_TYPES \d+$/, (packed, bytes) => {
      const { data } = packed.field('a').leaf; // row 0 is true, as 1.0
      bytes.set([0, 0x80], data.place(0, 6));
    }],
    ['an attribute of an unknown role', 'media', /"\$media":(?!.*"mime")/, (packed, bytes) => {
      for (const node of packed.nodes) if (node.name === 'mime') bytes[node.buffers.at(-1).at + 4] = 77;
    }],
    ['rows of a leaf under media_list_ragged that is no attribute', 'media_lists', /^B13 BAD_BUFFER \d+$/,
      (packed, bytes) => {
        const child = packed.nodes.find((node) => node.parent?.codec === 7 && node.name === 'mime');
        bytes[child.nameBytes.byteOffset + 3] = 0x66;
        bytes[child.at + 48] ^= 1;
      }],
  ];
  for (const [what, name, expected, change] of cases) {
    const [ours, theirs] = answers(name, change);
    if (!expected.test(ours) || ours !== theirs) yield `${what}: ${ours}, reader.py: ${theirs}`;
  }
});

const FLIPPED = ['lists_of_types', 'sequence_data', 'media_odd_attribute', 'msgpack', 'json', 'metadata',
  'prefix_leaders', 'types_constant', 'shared_list_attribute_leaves', 'blocks_small_lines', 'blocks_small_filled_split',
  'blocks_small_dictionary', 'blocks_small_offsets'];
const read = (bytes) => open(bytes, { file: true, limits: { result_bytes: 2 ** 22 } }).toJson();
test('flipped bits are found, and with checksums made again refused or read', function* () {
  const next = numbersFrom(88172645);
  for (const name of FLIPPED) {
    const original = bytesOf(`${VALID}/${name}.pbuf`);
    for (let i = 0; i < 400; i++) {
      const bytes = original.slice();
      const bit = next(8 * bytes.length);
      bytes[bit >> 3] ^= 1 << (bit & 7);
      if (refusal(() => read(bytes)) === '') yield `${name}: bit ${bit} flipped, and nothing was found`;
      reseal(bytes);
      refusal(() => read(bytes));
    }
  }
});

const VERIFY = `
import sys
sys.path.insert(0, "spec")
from reader import Packed, PackbufError
for name in sys.argv[1:]:
    try:
        Packed(open(name, "rb").read()).verify()
        print("ok")
    except PackbufError as error:
        print(error.rule, error.error, error.offset)
`;

/** What the command says of a file, as rule, error and offset. */
function verdict(name) {
  const { stderr } = spawnSync(TOOL, ['verify', '-q', name], { encoding: 'utf8' });
  const [, error, rule, offset] = /([A-Z0-9_]+) \((\w+)\) at byte (\d+)/.exec(stderr) ?? [];
  return rule ? `${rule} ${error} ${offset}` : stderr || 'ok';
}

test('of changed bytes this reader, reader.py and the command say the same: rule, error and offset', function* () {
  const next = numbersFrom(521288629);
  const names = valid().filter((name) => fs.statSync(`${VALID}/${name}`).size < 12000);
  const ours = [];
  const files = Array.from({ length: 400 }, (_, i) => {
    const bytes = bytesOf(`${VALID}/${names[next(names.length)]}`);
    for (let changes = 1 + next(3); changes > 0; changes--) {
      const at = next(bytes.length);
      bytes[at] = [bytes[at] ^ 1 << next(8), 0, 255, bytes[at] + 1, next(16)][next(5)];
    }
    reseal(bytes);
    ours.push(refusal(() => open(bytes, { file: true }).verify()) || 'ok');
    fs.writeFileSync(`${tmp}/changed${i}.pbuf`, bytes);
    return `${tmp}/changed${i}.pbuf`;
  });
  const python = run('python3', '-B', '-c', VERIFY, ...files).trim().split('\n');
  for (const [i, name] of files.entries())
    if (ours[i] !== python[i] || ours[i] !== verdict(name))
      yield `${i}: ${ours[i]}; reader.py: ${python[i]}; command: ${verdict(name)}`;
});

test('a file that is cut, or longer, is refused at every length', function* () {
  for (const name of ['json', 'blocks_small_lines']) {
    const bytes = bytesOf(`${VALID}/${name}.pbuf`);
    for (let length = 0; length < bytes.length; length++)
      if (!/ TRUNCATED /.test(refusal(() => open(bytes.subarray(0, length))))) yield `${name}: ${length} bytes`;
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    const found = refusal(() => open(longer, { file: true }));
    if (found !== `H9 TRAILING_BYTES ${bytes.length}`) yield `${name}: a byte more`;
    if (!(open(longer) instanceof Packed)) yield `${name}: memory may be larger`;
  }
});

test('tensors show their elements', function* () {
  const tensor = vector('every_dtype_tensor');
  for (const [name, node] of tensor.fields) {
    const cell = node.cells().find((value) => value instanceof Tensor);
    if (cell && cell.array.byteLength !== cell.bytes.length) yield name;
  }
});

console.log(`1..${count}`);
process.exitCode = failed ? 1 : 0;
