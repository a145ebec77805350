#!/usr/bin/env node
// The packbuf format 1.0 in plain JavaScript, for Node and the browser: packbuf.md beside this file, section by section
// and in its words, written from that page alone. No dependency, one file; viewer.html carries a copy of it.
// May use: what every JavaScript of 2022 has. Must not know: files, networks, pages (but for the command line at the
// end).

/*
 * A tour
 *
 *     import { open, join, equal } from './reader.mjs';
 *     const packed = open(bytes);                        // rules H: a Uint8Array, or { length, read(at, length) }
 *     packed.verify('full');                             // or 'head', 'index': rules N, B, M, S; I; D
 *     packed.rows; packed.fields; packed.values;         // N; Map of name -> node; batch values likewise
 *     packed.row(0);                                     // one row as Map of field -> value
 *
 *     const tokens = packed.field('tokens');
 *     tokens.cell(3); tokens.cells({ from: 10, to: 90, step: 2 }); tokens.cells([5, 5, 1]); tokens.cells(mask)
 *     tokens.array();                                    // of an ndarray: { dtype, shape, data }, a view if it can be
 *     tokens.buffer(ROLE.offsets).array();               // the elements of one buffer
 *     tokens.isValid(3); tokens.isMissing(3);            // masks
 *
 *     packed.toJson(); packed.schema(); packed.fingerprint(); packed.layout()
 *
 *     const list = manifest.fragments();                 // what a manifest lists: key, first_row, rows, ...
 *     const whole = join(list.map(({ key }) => fetched(key)), { list });   // read as one; without list: appended rows
 *     whole.rows; whole.fields; whole.values; whole.field('tokens').cells(); whole.value('step'); whole.row(0)
 *
 * What a cell is in JavaScript keeps apart what section 16 keeps apart, and `equal` is that relation:
 *
 *     null  null      missing  undefined      bool  boolean      int  bigint
 *     float  number (a NaN with a payload: NanBits)
 *     string  string  bytes  Uint8Array       list  Array        dict  Map (Pairs, where a key is no string)
 *     tensor, array, scalar  Tensor           media  Media       opaque  Opaque   what cannot be read  Unreadable
 *
 * The bytes are untrusted: whatever they are, nothing but a PackbufError is thrown, which has the rule, the error's
 * name and number, the offset and the path. Nothing is allocated, and no loop entered, before its size is held against
 * the bytes that are there or against the limits: those of section 15 and `result_bytes`, which is this reader's own:
 * the bytes of one array, or of all values of one call.
 * Without verify, what is read is checked as section 13 asks: the first use of a field checks the head, the first use
 * of a node its part of the index, each cell its data (checksums of index and data are verify's).
 *
 * The sections below are those of the page, in its order; 17 to 19 (expansion, promotion, profiles) are for encoders,
 * 21 is an example. Numbers of 64 bits that were not held against anything yet are bigint; what lies within the bytes
 * that are there is number.
 */

// ---- 1. Words ----

export const KIND = { leaf: 1, dict: 2, list: 3 };
export const CODEC = ['', 'null', 'ndarray', 'ragged_tensor', 'typed_ragged', 'bytes_ragged', 'media_bytes',
  'media_list_ragged', 'utf8_ragged', 'json_ragged', 'msgpack_ragged', 'opaque_ragged'];
export const ROLE = { data: 1, offsets: 2, lengths: 3, shape: 4, ndims: 5, validity: 6, missing: 7, types: 8,
  item_offsets: 9, row_index: 10, prefix_row: 11, prefix_length: 12 };
export const STORAGE = { stored: 1, inline: 2, constant: 3, sequence: 4, alias: 5 };
export const PACKING = { plain: 0, blocks: 1 };
export const PROFILE = ['plain', 'balanced', 'fastest', 'smallest'];
export const FORM = ['natural', 'list', 'array', 'tensor', 'scalar', 'bytes', 'media'];
const [NULL, NDARRAY, RAGGED_TENSOR, TYPED_RAGGED, , MEDIA_BYTES, MEDIA_LIST, UTF8, JSON_RAGGED, MSGPACK, OPAQUE] =
  CODEC.slice(1).map((_, i) => i + 1);
const [NATURAL, LIST, ARRAY, TENSOR, SCALAR, BYTES, MEDIA] = FORM.map((_, i) => i);
const NONE = 0xFFFFFFFF;
const BLOCK = 8192;
const CHUNK = 65536;

// ---- 2. Shape of a packed buffer: bytes and numbers ----

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Bytes in memory, as what they are read from. Any object with `length` and `read(at, length)` does: a file, say. */
class Memory {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.length = bytes.length;
  }

  /** @param {number} at @param {number} length */
  read(at, length) {
    return this.bytes.subarray(at, at + length);
  }
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const isZero = (bytes) => firstNot(bytes, 0) < 0;
const roundUp = (n, unit) => Math.ceil(n / unit) * unit;
const roundUpBig = (n, unit) => (n + unit - 1n) / unit * unit;
const NUMBER_END = 2n ** 53n;
const SIZE_END = 2n ** 63n;
const COUNT_END = 2n ** 64n;

/** The first byte that is not `value`, or -1. */
function firstNot(bytes, value) {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== value) return i;
  return -1;
}

/** Little-endian bytes as a typed array: a view where alignment and the machine allow, else a copy. */
function typed(bytes, Type) {
  const size = Type.BYTES_PER_ELEMENT;
  const whole = bytes.length - bytes.length % size;
  if (LITTLE_ENDIAN && bytes.byteOffset % size === 0) return new Type(bytes.buffer, bytes.byteOffset, whole / size);
  const copy = bytes.slice(0, whole);
  if (!LITTLE_ENDIAN) for (let i = 0; i < whole; i += size) copy.subarray(i, i + size).reverse();
  return new Type(copy.buffer, 0, whole / size);
}

/** The little-endian bytes of a typed array. */
function untyped(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  const size = array.BYTES_PER_ELEMENT;
  if (!LITTLE_ENDIAN) for (let i = 0; i < bytes.length; i += size) bytes.subarray(i, i + size).reverse();
  return bytes;
}

/** Unsigned bytes compared, a prefix before its extension. */
function compareBytes(a, b) {
  for (let i = 0; i < a.length && i < b.length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

/** Where bytes stop being UTF-8 (the first byte of the first ill-formed sequence), or -1. */
export function wrongUtf8(bytes) {
  const n = bytes.length;
  for (let i = 0; i < n;) {
    const lead = bytes[i];
    if (lead < 0x80) {
      i++;
      continue;
    }
    const more = lead < 0xC2 || lead > 0xF4 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    if (more === 0 || i + more >= n) return i;
    const low = lead === 0xE0 ? 0xA0 : lead === 0xF0 ? 0x90 : 0x80;
    const high = lead === 0xED ? 0x9F : lead === 0xF4 ? 0x8F : 0xBF;
    if (bytes[i + 1] < low || bytes[i + 1] > high) return i;
    for (let k = 2; k <= more; k++) if ((bytes[i + k] & 0xC0) !== 0x80) return i;
    i += more + 1;
  }
  return -1;
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
/** Text of bytes that are UTF-8. */
const textOf = (bytes) => decoder.decode(bytes);

// ---- 3. File header and directory ----

const CRC_TABLES = Array.from({ length: 8 }, () => new Int32Array(256));
for (let i = 0; i < 256; i++) {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >>> 1 ^ 0x82F63B78 : crc >>> 1;
  CRC_TABLES[0][i] = crc;
}
for (let t = 1; t < 8; t++)
  for (let i = 0; i < 256; i++) {
    const crc = CRC_TABLES[t - 1][i];
    CRC_TABLES[t][i] = CRC_TABLES[0][crc & 255] ^ crc >>> 8;
  }

/**
 * CRC-32C, eight bytes at a time; `before` is the CRC of what comes before these bytes.
 * @param {Uint8Array} bytes
 */
export function crc32c(bytes, before = 0) {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = CRC_TABLES;
  let crc = ~before;
  let i = 0;
  for (; i + 8 <= bytes.length; i += 8) {
    crc ^= bytes[i] | bytes[i + 1] << 8 | bytes[i + 2] << 16 | bytes[i + 3] << 24;
    crc = t7[crc & 255] ^ t6[crc >>> 8 & 255] ^ t5[crc >>> 16 & 255] ^ t4[crc >>> 24] ^
      t3[bytes[i + 4]] ^ t2[bytes[i + 5]] ^ t1[bytes[i + 6]] ^ t0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) crc = t0[(crc ^ bytes[i]) & 255] ^ crc >>> 8;
  return ~crc >>> 0;
}

/**
 * File header and directory. Lengths and places are numbers once rules H7 and H8 hold them against the bytes there are.
 * @typedef {object} Header
 * @property {number} version_minor @property {number} kind @property {number} alignment @property {number} profile
 * @property {number} total_length @property {number} head_length @property {number} index_length
 * @property {number} rows
 * @property {number} index_checksum @property {number} head_checksum @property {boolean} checksums
 * @property {number} node_count @property {number} buffer_count @property {number} metadata_count
 * @property {number} name_count @property {number} node_stride @property {number} buffer_stride
 * @property {number} metadata_stride @property {number} name_stride
 * @property {number} strings_length @property {number} field_count @property {number} value_count
 * @property {Uint8Array} row_order_token @property {number} checksum_room
 * @property {number} nodes @property {number} buffers @property {number} metadata @property {number} names
 * @property {number} strings
 */

const MAGIC = Uint8Array.of(0x89, 0x50, 0x42, 0x55, 0x46, 0x0D, 0x0A, 0x1A);

/** Rules H: the header, the directory and the head's checksum. Returns the header and the bytes of the head. */
function readHeader(source, limits, file) {
  if (source.length < 128) fail('H1', source.length);
  const first = source.read(0, 128).slice();
  if (first.length < 128) fail('H1', first.length);
  const view = viewOf(first);
  const u16 = (at) => view.getUint16(at, true);
  const u32 = (at) => view.getUint32(at, true);
  const u64 = (at) => view.getBigUint64(at, true);
  if (compareBytes(first.subarray(0, 8), MAGIC) !== 0) fail('H2', 0);
  if (u16(8) !== 1) fail('H3', 8);
  if (u32(16) !== 0) fail('H4', 16);
  if (first[12] !== 1 && first[12] !== 2) fail('H5', 12);
  if (first[13] < 6 || first[13] > 12) fail('H6', 13);
  const alignment = 1 << first[13];
  const unit = BigInt(alignment);
  const [total, head, index, rows] = [u64(24), u64(32), u64(40), u64(48)];
  if (head < 128n || head % unit !== 0n || head > total) fail('H7', 32);
  if (index % unit !== 0n || index > total - head) fail('H7', 40);
  if (total % unit !== 0n) fail('H7', 24);
  if (total > BigInt(source.length)) fail('H8', source.length);
  if (file && total < BigInt(source.length)) fail('H9', Number(total));
  if (head > limits.head_bytes) fail('H10', 32);
  if (u32(64) > limits.nodes) fail('H10', 64);
  if (u32(68) > limits.buffers) fail('H10', 68);
  if (u32(72) > limits.metadata) fail('H10', 72);
  if (rows > BigInt(limits.rows)) fail('H10', 48);
  if (u64(88) > 0xFFFFFFFFn) fail('H10', 88);
  const bytes = source.read(0, Number(head)).slice();
  if (bytes.length !== Number(head)) fail('H8', bytes.length);
  bytes.set(first); // what was checked is what is used
  bytes.fill(0, 60, 64);
  if (crc32c(bytes) !== u32(60)) fail('H11', 60);
  bytes.set(first.subarray(60, 64), 60);
  for (const [at, least, multiple] of [[80, 64, 8], [82, 64, 8], [84, 32, 8], [86, 4, 4]])
    if (u16(at) < least || u16(at) % multiple !== 0) fail('H12', at);
  if (u32(124) !== 0) fail('H13', 124);
  const buffers = 128 + u32(64) * u16(80);
  const metadata = buffers + u32(68) * u16(82);
  const names = metadata + u32(72) * u16(84);
  const strings = names + u32(76) * u16(86);
  const end = strings + Number(u64(88));
  if (roundUp(end, alignment) !== Number(head)) fail('H14', 32);
  const extra = firstNot(bytes.subarray(end), 0);
  if (extra >= 0) fail('H15', end + extra);
  const header = {
    version_minor: u16(10), kind: first[12], alignment, profile: u16(14), checksums: (u32(20) & 1) === 1,
    total_length: Number(total), head_length: Number(head), index_length: Number(index), rows: Number(rows),
    index_checksum: u32(56), head_checksum: u32(60),
    node_count: u32(64), buffer_count: u32(68), metadata_count: u32(72), name_count: u32(76),
    node_stride: u16(80), buffer_stride: u16(82), metadata_stride: u16(84), name_stride: u16(86),
    strings_length: Number(u64(88)), field_count: u32(96), value_count: u32(100),
    row_order_token: first.slice(104, 120), checksum_room: u32(120),
    nodes: 128, buffers, metadata, names, strings,
  };
  return { header, bytes };
}

// ---- 4. Node table ----

/** A node of the tree: an interior dict or list, or a leaf. */
export class Node {
  constructor(packed, index, at, parent) {
    const view = packed.view;
    this.packed = packed;
    this.index = index;
    this.at = at;
    /** @type {Node | null} */
    this.parent = parent;
    /** @type {Node[]} */
    this.children = [];
    /** Which child of its parent it is. */
    this.ordinal = parent ? parent.children.length : 0;
    this.depth = parent ? parent.depth + 1 : 1;
    /** @type {TypedBuffer[]} */
    this.buffers = [];
    this.descendants = view.getUint32(at + 4, true);
    this.first_buffer = view.getUint32(at + 16, true);
    this.buffer_count = view.getUint16(at + 20, true);
    this.kind = view.getUint8(at + 22);
    this.scope = view.getUint8(at + 23);
    this.codec = view.getUint8(at + 24);
    this.dtype = new Dtype(view.getUint8(at + 25), view.getUint8(at + 26), view.getUint16(at + 28, true));
    this.form = view.getUint8(at + 27);
    this.rank = view.getUint8(at + 30);
    this.logical_type = view.getUint8(at + 31);
    /** Cells in the column; exact to 2^53, and `rowsExact` beyond. */
    this.rowsExact = view.getBigUint64(at + 48, true);
    this.rows = Number(this.rowsExact);
    this.name = '';
    this.nameBytes = new Uint8Array(0);
    this.parameter = '';
    /** @type {bigint[]} dimensions of an ndarray cell */
    this.shape = [];
    this.sound = false;
  }

  get isLeaf() {
    return this.kind === KIND.leaf;
  }

  /** A leaf of a codec that this reader knows, or a dict or list. */
  get isKnown() {
    return !this.isLeaf || this.codec <= OPAQUE;
  }

  get codecName() {
    return this.isLeaf ? CODEC[this.codec] ?? String(this.codec) : this.kind === KIND.dict ? 'dict' : 'list';
  }

  /** The path of section 4. */
  get path() {
    const parts = [];
    for (let node = this; node; node = node.parent) {
      const name = node.name.replace(/[\\.[]/g, '\\$&');
      parts.push(!node.parent ? name : node.parent.kind === KIND.list ? `[${node.ordinal}]` : `.${name}`);
    }
    return parts.reverse().join('');
  }

  /** @param {number} role @returns {TypedBuffer | undefined} */
  buffer(role, dim = 0) {
    return this.buffers.find((b) => b.role === role && b.dim === dim);
  }

  /** The child of this name. */
  child(name) {
    return this.children.find((c) => c.name === name && this.kind !== KIND.list);
  }
}

/** Rules N: the node table, with names, shapes and parameters, which lie in the strings one after the other. */
class NodeTable {
  constructor(packed) {
    this.packed = packed;
    this.cursor = 0; // in the strings
    this.nextBuffer = 0;
    this.top = [0, 0];
    this.open = []; // the nodes that enclose the next, outermost first
    this.ends = [];
  }

  read() {
    const { header, nodes } = this.packed;
    for (let i = 0; i < header.node_count; i++) nodes.push(this.readNode(i));
    if (this.nextBuffer !== header.buffer_count) fail('N14', 68);
    if (this.top[0] !== header.field_count) fail('N15', 96);
    if (this.top[1] !== header.value_count) fail('N15', 100);
    this.packed.stringsEnd = this.cursor;
  }

  readNode(index) {
    const { packed, open, ends } = this;
    const at = packed.header.nodes + index * packed.header.node_stride;
    while (ends.length && index >= ends.at(-1)) {
      open.pop();
      ends.pop();
    }
    const parent = open.at(-1) ?? null;
    const node = new Node(packed, index, at, parent);
    this.checkPlace(node, ends.at(-1) ?? packed.header.node_count);
    this.checkKind(node);
    this.checkRows(node);
    this.readStrings(node);
    if (node.first_buffer !== this.nextBuffer) fail('N14', at + 16, node);
    this.nextBuffer += node.buffer_count;
    if (this.nextBuffer > packed.header.buffer_count) fail('N14', at + 20, node);
    if (parent) parent.children.push(node);
    else {
      this.top[node.scope]++;
      packed.top[node.scope].push(node);
    }
    open.push(node);
    ends.push(index + 1 + node.descendants);
    return node;
  }

  /** N1 to N3 */
  checkPlace(node, end) {
    const { at, parent, packed } = node;
    if (node.kind < 1 || node.kind > 3) fail('N1', at + 22, node);
    const least = this.top[1] > 0 ? 1 : 0;
    if (node.scope > 1 || (parent ? node.scope !== parent.scope : node.scope < least)) fail('N1', at + 23, node);
    if (packed.view.getUint32(at, true) !== (parent ? parent.index : NONE)) fail('N2', at, node);
    if (node.index + 1 + node.descendants > end) fail('N2', at + 4, node);
    if (node.depth > packed.limits.depth) fail('N3', at, node);
  }

  /** N4 to N8 */
  checkKind(node) {
    const { at, parent, codec, dtype, form, rank } = node;
    const media = parent?.codec === MEDIA_BYTES || parent?.codec === MEDIA_LIST;
    if (parent?.isLeaf && parent.isKnown && !(media && node.isLeaf)) fail('N4', at + 22, node);
    const nothing = dtype.is(0, 0, 0);
    const bytes = codec > TYPED_RAGGED && codec <= OPAQUE;
    if (node.isLeaf ? codec === 0 || (codec === NULL && !nothing) || (bytes && !dtype.is(1, 8, 1))
      : codec !== 0 || !nothing || form !== 0 || rank !== 0 || node.logical_type !== 0) fail('N5', at + 24, node);
    if (node.packed.view.getUint32(at + 44, true) !== 0) fail('N6', at + 44, node);
    if (!isZero(node.packed.head.subarray(at + 56, at + 64))) fail('N6', at + 56, node);
    const flat = node.isKnown && (codec < NDARRAY || codec > TYPED_RAGGED);
    if (rank > 8 || (rank !== 0 && flat)) fail('N7', at + 30, node);
    if (node.isLeaf && node.isKnown && !formsOf(node).includes(form)) fail('N8', at + 27, node);
  }

  /** N9; rows of what is below media_list_ragged are B13's */
  checkRows(node) {
    const { parent } = node;
    if (parent?.isLeaf && parent.codec === MEDIA_LIST) return;
    const rows = parent ? parent.rowsExact : node.scope === 0 ? BigInt(node.packed.header.rows) : 1n;
    if (node.rowsExact !== rows) fail('N9', node.at + 48, node);
  }

  /** N10 to N13 */
  readStrings(node) {
    const { at, parent, packed } = node;
    const { view } = packed;
    node.nameBytes = this.take('N10', at + 8, view.getUint32(at + 12, true), node);
    const shape = this.take('N10', at + 32, node.isLeaf && node.codec === NDARRAY ? 8 * node.rank : 0, node);
    const parameter = this.take('N10', at + 36, view.getUint32(at + 40, true), node);
    if (parent?.kind === KIND.list && node.nameBytes.length !== 0) fail('N11', at + 12, node);
    node.name = packed.text('N12', node.nameBytes, node);
    node.parameter = packed.text('N12', parameter, node);
    const dimensions = viewOf(shape);
    for (let i = 0; i < shape.length; i += 8) node.shape.push(dimensions.getBigUint64(i, true));
    const elements = product(node.shape) * node.rowsExact;
    const tooMany = elements >= COUNT_END || byteLength(elements, node.dtype) >= SIZE_END;
    if (node.codec === NDARRAY && tooMany) fail('N13', at + 32, node);
  }

  /** The next `length` bytes of the strings, whose place the field at `field` must say. */
  take(rule, field, length, node) {
    const { view, head, header } = this.packed;
    const begins = view.getUint32(field, true) === this.cursor;
    if (!begins || this.cursor + length > header.strings_length) fail(rule, field, node);
    this.cursor += length;
    return head.subarray(header.strings + this.cursor - length, header.strings + this.cursor);
  }
}

/** A dimension as a number; one that is none (beside a dimension of 0) stays a bigint. */
const dimension = (n) => (n < NUMBER_END ? Number(n) : n);
const product = (numbers) => numbers.reduce((a, b) => a * b, 1n);

/** The forms that a leaf's codec allows (section 9). */
function formsOf(node) {
  switch (node.codec) {
    case NDARRAY: return node.rank === 0 ? [NATURAL, ARRAY, TENSOR, SCALAR] : [ARRAY, TENSOR];
    case RAGGED_TENSOR: return [TENSOR];
    case TYPED_RAGGED: return [LIST, ARRAY];
    case MEDIA_LIST: return [BYTES, MEDIA];
    default: return [NATURAL];
  }
}

// ---- 5. Buffer table ----

/** The dtype that section 5 gives to a role. */
const roleDtype = (role, node) => (role === ROLE.data ? node.dtype : role === ROLE.ndims || role === ROLE.types ? UINT8
  : role === ROLE.validity || role === ROLE.missing ? BIT : UINT64);

/** One record of the buffer table: a typed one-dimensional array, with a role. */
export class TypedBuffer {
  constructor(packed, index, node) {
    const { view, header } = packed;
    const at = header.buffers + index * header.buffer_stride;
    this.packed = packed;
    this.index = index;
    this.at = at;
    /** @type {Node} */
    this.node = node;
    this.role = view.getUint8(at + 4);
    this.dim = view.getUint8(at + 5);
    this.storage = view.getUint8(at + 6);
    this.packing = view.getUint8(at + 7);
    this.dtype = new Dtype(view.getUint8(at + 8), view.getUint8(at + 9), view.getUint16(at + 10, true));
    this.alias_of = view.getUint32(at + 12, true);
    /** Elements; exact to 2^53, and `countExact` beyond. */
    this.countExact = view.getBigUint64(at + 16, true);
    this.count = Number(this.countExact);
    this.offsetExact = view.getBigUint64(at + 24, true);
    this.offset = Number(this.offsetExact);
    this.lengthExact = view.getBigUint64(at + 32, true);
    this.length = Number(this.lengthExact);
    this.value = packed.head.subarray(at + 40, at + 56);
    this.headersOffsetExact = view.getBigUint64(at + 56, true);
    this.headers_offset = Number(this.headersOffsetExact);
    /** Bytes of all elements, unpacked. */
    this.rawLength = byteLength(this.countExact, this.dtype);
    this.windows = new Map();
  }

  get roleName() {
    const name = Object.keys(ROLE).find((key) => ROLE[key] === this.role) ?? `role ${this.role}`;
    return this.role === ROLE.shape ? `shape ${this.dim}` : name;
  }

  get isData() {
    return this.role === ROLE.data;
  }

  get isComputed() {
    return this.storage === STORAGE.constant || this.storage === STORAGE.sequence;
  }

  /** It has bytes of its own in the index or the data. */
  get isStored() {
    return this.storage === STORAGE.stored;
  }

  get hasBytes() {
    return this.isStored || this.storage === STORAGE.alias;
  }

  get isPacked() {
    return this.hasBytes && this.packing !== PACKING.plain;
  }

  get isBlocks() {
    return this.hasBytes && this.packing === PACKING.blocks;
  }

  /** Of a packing that this reader knows. */
  get isReadable() {
    return this.packing <= PACKING.blocks;
  }

  get isKnownRole() {
    return this.role >= ROLE.data && this.role <= ROLE.prefix_length;
  }

  /** Bytes of the block headers: 16 for each 8 KiB of elements. */
  get headersLength() {
    return this.isPacked ? (this.rawLength + BigInt(BLOCK - 1)) / BigInt(BLOCK) * 16n : 0n;
  }
}

/** Rules B1 to B12: the records, and where the stored bytes lie. */
class BufferTable {
  constructor(packed) {
    this.packed = packed;
    const { head_length, index_length, total_length, alignment, checksum_room, checksums } = packed.header;
    this.unit = BigInt(alignment);
    this.indexEnd = BigInt(head_length + index_length);
    this.dataEnd = BigInt(total_length);
    const chunks = checksums ? Math.ceil((total_length - head_length - index_length) / CHUNK) : 0;
    /** The next place in the index, among the plain data, among the packed data. */
    this.index = BigInt(head_length) + roundUpBig(BigInt(4 * chunks), this.unit) + BigInt(checksum_room) * this.unit;
    this.plain = this.indexEnd;
    this.packedData = this.indexEnd;
  }

  read() {
    const { nodes, buffers, header } = this.packed;
    for (const node of nodes) {
      for (let i = 0; i < node.buffer_count; i++)
        buffers.push(new TypedBuffer(this.packed, node.first_buffer + i, node));
      node.buffers = buffers.slice(node.first_buffer);
    }
    for (const b of buffers)
      if (b.isStored && b.isData && b.packing === PACKING.plain)
        this.packedData += roundUpBig(b.lengthExact, this.unit);
    let before = null;
    for (const b of buffers) {
      this.checkRecord(b, before);
      if (b.storage === STORAGE.alias) this.checkAlias(b);
      if (b.hasBytes && b.packing === PACKING.plain && b.lengthExact !== b.rawLength) fail('B10', b.at + 32, b.node);
      if (b.isStored) this.checkPlace(b);
      before = b;
    }
    if (this.index !== this.indexEnd) fail('B12', 40);
    const packedData = buffers.some((b) => b.isStored && b.isData && b.isPacked);
    if ((packedData ? this.packedData : this.plain) !== BigInt(header.total_length)) fail('B12', 24);
  }

  /** B1 to B8, and B14 */
  checkRecord(b, before) {
    const { at, node, storage, packing } = b;
    const { view, head } = this.packed;
    if (view.getUint32(at, true) !== node.index) fail('B1', at, node);
    const ascends = before?.node !== node || b.role > before.role || (b.role === before.role && b.dim > before.dim);
    if (!ascends) fail('B1', at + 4, node);
    if (storage < 1 || storage > 5) fail('B2', at + 6, node);
    if (b.dim !== 0 && b.role !== ROLE.shape || b.role === ROLE.shape && b.dim >= node.rank) fail('B2', at + 5, node);
    if (b.isKnownRole && (!b.dtype.same(roleDtype(b.role, node)) || b.dtype.size === 0)) fail('B3', at + 8, node);
    if (b.rawLength >= SIZE_END) fail('B4', at + 16, node);
    if (storage !== STORAGE.alias && b.alias_of !== 0) fail('B5', at + 12, node);
    if (!b.hasBytes && b.offsetExact !== 0n) fail('B5', at + 24, node);
    if (!b.hasBytes && b.lengthExact !== 0n) fail('B5', at + 32, node);
    if (!isZero(head.subarray(at + 40 + this.usedOfValue(b), at + 56))) fail('B5', at + 40, node);
    if (!b.isPacked && b.headersOffsetExact !== 0n) fail('B5', at + 56, node);
    if (b.isBlocks) this.checkBlocks(b);
    if (storage === STORAGE.inline && b.rawLength > 16n) fail('B6', at + 16, node);
    if (!b.hasBytes && packing !== PACKING.plain) fail('B6', at + 7, node);
    const truth = b.dtype.size === 1 || b.dtype.is(6, 8, 1);
    if (storage === STORAGE.constant && truth && b.value[0] > 1) fail('B7', at + 40, node);
    if (storage === STORAGE.sequence) this.checkSequence(b);
  }

  /** Bytes of `value` that the storage uses; those of an unknown packing are its own. */
  usedOfValue(b) {
    switch (b.storage) {
      case STORAGE.inline: return Number(b.rawLength > 16n ? 16n : b.rawLength);
      case STORAGE.constant: return Math.min(16, Math.ceil(b.dtype.size / 8));
      case STORAGE.sequence: return 16;
      default: return b.isPacked ? 16 : 0;
    }
  }

  /** B8: int64 or uint64, and the last element is one too */
  checkSequence(b) {
    const signed = b.dtype.is(0, 64, 1);
    if (!signed && !b.dtype.is(1, 64, 1)) fail('B8', b.at + 8, b.node);
    const view = viewOf(b.value);
    b.start = signed ? view.getBigInt64(0, true) : view.getBigUint64(0, true);
    b.step = view.getBigInt64(8, true);
    const last = b.start + (b.countExact > 0n ? b.countExact - 1n : 0n) * b.step;
    if (last !== (signed ? BigInt.asIntN(64, last) : BigInt.asUintN(64, last))) fail('B8', b.at + 40, b.node);
  }

  /** B14 */
  checkBlocks(b) {
    const { at, node } = b;
    if (b.isData && node.codec > TYPED_RAGGED && node.codec <= OPAQUE) fail('B14', at + 7, node);
    if (unitBits(b) === 0) fail('B14', at + 8, node);
    if (b.countExact === 0n) fail('B14', at + 16, node);
    if (b.lengthExact % 64n !== 0n) fail('B14', at + 32, node);
    if (!isZero(b.value)) fail('B14', at + 40, node);
  }

  /** B9 */
  checkAlias(b) {
    const target = b.alias_of < b.index ? this.packed.buffers[b.alias_of] : null;
    const { head } = this.packed;
    const part = (record, from, to) => head.subarray(record.at + from, record.at + to);
    const same = (from, to) => compareBytes(part(b, from, to), part(target, from, to)) === 0;
    const repeats = target?.isStored && target.isData === b.isData && same(7, 12) && same(16, 64);
    if (!repeats) fail('B9', b.at + 12, b.node);
  }

  /** B11: the block headers, then the stored bytes */
  checkPlace(b) {
    if (b.isPacked) {
      const fits = this.index + b.headersLength <= this.indexEnd;
      if (b.headersOffsetExact !== this.index || !fits) fail('B11', b.at + 56, b.node);
      this.index += roundUpBig(b.headersLength, this.unit);
    }
    const cursor = !b.isData ? 'index' : b.isPacked ? 'packedData' : 'plain';
    const end = b.isData ? this.dataEnd : this.indexEnd;
    if (b.offsetExact !== this[cursor] || this[cursor] + b.lengthExact > end) fail('B11', b.at + 24, b.node);
    this[cursor] += roundUpBig(b.lengthExact, this.unit);
  }
}

/** B13: a node has the buffers that its kind demands, with the counts that rows demands. */
class BufferCounts {
  constructor(node) {
    this.node = node;
    this.rows = node.rowsExact;
    this.offsets = node.buffer(ROLE.offsets);
    this.types = node.buffer(ROLE.types);
    this.shared = Boolean(node.buffer(ROLE.row_index));
    this.product = product(node.shape);
    this.stored = this.rows;
  }

  check() {
    const { node } = this;
    const known = node.isLeaf ? node.isKnown && node.buffers.every((b) => b.isKnownRole) : true;
    if (!known) {
      for (const b of node.buffers) if (isMask(b) && b.countExact !== this.rows) fail('B13', b.at, node);
      return;
    }
    if (this.shared) this.stored = this.countStored();
    for (const b of node.buffers) if (!this.allows(b) || !this.counts(b)) fail('B13', b.at, node);
    for (const [role, dim] of this.demands()) if (!node.buffer(role, dim)) fail('B13', node.at + 16, node);
  }

  get telling() {
    const { node } = this;
    if (node.codec === NDARRAY) return node.buffer(ROLE.data);
    return node.buffer(node.codec === MEDIA_LIST ? ROLE.item_offsets : ROLE.offsets);
  }

  /** Stored rows, of a leaf with a row_index: 0 where the record that tells is absent or wrong (`counts` says so). */
  countStored() {
    const { telling } = this;
    if (!telling) return 0n;
    if (this.node.codec === NDARRAY) return this.product === 0n ? 0n : telling.countExact / this.product;
    return telling.countExact === 0n ? 0n : telling.countExact - 1n;
  }

  get prefixAllowed() {
    const { node } = this;
    const ragged = node.codec === RAGGED_TENSOR || node.codec === TYPED_RAGGED;
    return ragged && node.rank === 1 && !node.buffer(ROLE.ndims) && !this.types;
  }

  allows(b) {
    const { node } = this;
    const { codec, rank } = node;
    const ragged = codec === RAGGED_TENSOR || codec === TYPED_RAGGED;
    if (b.role === ROLE.missing || (b.role === ROLE.validity && codec !== NULL)) return true;
    if (!node.isLeaf) return node.kind === KIND.list && b.role === ROLE.lengths;
    if (codec === NULL) return false;
    switch (b.role) {
      case ROLE.data: case ROLE.row_index: return true;
      case ROLE.offsets: return codec !== NDARRAY;
      case ROLE.shape: return ragged && rank >= 2;
      case ROLE.ndims: return ragged;
      case ROLE.types: return ragged || codec === MEDIA_LIST || (codec === NDARRAY && rank === 0);
      case ROLE.item_offsets: return codec === MEDIA_LIST;
      case ROLE.prefix_row: case ROLE.prefix_length: return this.prefixAllowed;
      default: return false;
    }
  }

  counts(b) {
    const { node, rows, stored } = this;
    const list = node.codec === MEDIA_LIST;
    if (b === this.telling && this.shared) {
      if (b.isData) return this.product !== 0n && b.countExact % this.product === 0n && stored <= rows;
      if (b.countExact === 0n || stored > rows) return false;
      if (!list) return true;
    }
    switch (b.role) {
      case ROLE.data: return node.codec !== NDARRAY || b.countExact === stored * this.product;
      case ROLE.offsets:
        if (!list) return b.countExact === stored + 1n;
        return b.countExact !== 0n && node.children.every((c) => c.rowsExact === b.countExact - 1n);
      case ROLE.types: return b.countExact === (list ? (this.offsets?.countExact ?? 1n) - 1n : stored);
      case ROLE.item_offsets: return b.countExact === stored + 1n;
      case ROLE.validity: case ROLE.missing: case ROLE.row_index: case ROLE.lengths: return b.countExact === rows;
      default: return b.countExact === stored;
    }
  }

  /** What must be there. */
  demands() {
    const { node } = this;
    if (!node.isLeaf) return node.kind === KIND.list ? [[ROLE.lengths, 0]] : [];
    if (node.codec === NULL) return [];
    const roles = [[ROLE.data, 0]];
    if (node.codec !== NDARRAY) roles.push([ROLE.offsets, 0]);
    if (node.codec === MEDIA_LIST) roles.push([ROLE.item_offsets, 0]);
    if (node.codec === RAGGED_TENSOR || node.codec === TYPED_RAGGED)
      for (let dim = 0; node.rank >= 2 && dim < node.rank; dim++) roles.push([ROLE.shape, dim]);
    if (node.buffer(ROLE.prefix_row) || node.buffer(ROLE.prefix_length))
      roles.push([ROLE.prefix_row, 0], [ROLE.prefix_length, 0]);
    return roles;
  }
}

const isMask = (b) => b.role === ROLE.validity || b.role === ROLE.missing;

// ---- 6. Metadata, names, strings ----

/** Rules M. */
function readMetadata(packed, table) {
  const { header, view, head } = packed;
  let before = null;
  for (let i = 0; i < header.metadata_count; i++) {
    const at = header.metadata + i * header.metadata_stride;
    const number = view.getUint32(at, true);
    if (number !== NONE && number >= header.node_count) fail('M1', at);
    const node = number === NONE ? null : packed.nodes[number];
    const keyAt = view.getUint32(at + 4, true);
    const keyLength = view.getUint32(at + 8, true);
    const within = keyAt + keyLength <= header.strings_length;
    const key = within ? head.subarray(header.strings + keyAt, header.strings + keyAt + keyLength) : null;
    const descends = before?.number === number && key && before.key && compareBytes(key, before.key) <= 0;
    if (before && (number < before.number || descends)) fail('M2', at + 4, node);
    table.take('M3', at + 4, keyLength, node);
    const value = table.take('M3', at + 12, view.getUint32(at + 16, true), node);
    packed.metadata.push({ node, key: packed.text('M4', key, node), value: packed.text('M4', value, node) });
    if (!isZero(head.subarray(at + 20, at + 32))) fail('M5', at + 20, node);
    before = { number, key };
  }
  if (table.cursor !== header.strings_length) fail('M3', 88);
}

/** Rules S: the name index. */
function checkNames(packed) {
  const { header, view, nodes } = packed;
  const isNamed = (node) => node.parent?.kind !== KIND.list;
  if (header.name_count !== nodes.filter(isNamed).length) fail('S1', 76);
  let before = null;
  for (let i = 0; i < header.name_count; i++) {
    const at = header.names + i * header.name_stride;
    const node = nodes[view.getUint32(at, true)];
    if (!node || !isNamed(node)) fail('S1', at);
    const order = before && ((before.parent?.index ?? NONE) - (node.parent?.index ?? NONE)
      || before.scope - node.scope || compareBytes(before.nameBytes, node.nameBytes));
    if (before && order > 0) fail('S2', at, node);
    if (before && order === 0) fail('S3', at, node);
    before = node;
  }
}

// ---- 7. Index and data ----

/** A named range of bytes of a packed buffer: what `Packed.layout` tells a map of the bytes. */
/**
 * @typedef {{ from: number, to: number, part: 'head' | 'index' | 'data', what: string, buffer?: TypedBuffer }} Range
 */

/** Every byte of a packed buffer, in order and without gaps. */
function* layoutOf(packed) {
  const { header, buffers } = packed;
  const index = header.head_length + header.index_length;
  const chunks = header.checksums ? Math.ceil((header.total_length - index) / CHUNK) : 0;
  const ranges = [
    [0, 64, 'file header'], [64, 64, 'directory'], [128, header.buffers - 128, 'nodes'],
    [header.buffers, header.metadata - header.buffers, 'buffers'],
    [header.metadata, header.names - header.metadata, 'metadata'],
    [header.names, header.strings - header.names, 'names'], [header.strings, header.strings_length, 'strings'],
    [header.head_length, 4 * chunks, 'data checksums'],
  ];
  for (const b of buffers) {
    if (!b.isStored) continue;
    if (b.isPacked) ranges.push([b.headers_offset, Number(b.headersLength), 'block headers', b]);
    ranges.push([b.offset, b.length, b.roleName, b]);
  }
  ranges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const partOf = (at) => (at < header.head_length ? 'head' : at < index ? 'index' : 'data');
  let at = 0;
  for (const [from, length, what, buffer] of ranges) {
    if (from > at) yield* paddingOf(at, from, header, partOf);
    if (length > 0) yield { from, to: from + length, part: partOf(from), what, buffer };
    at = from + length;
  }
  yield* paddingOf(at, header.total_length, header, partOf);
}

function* paddingOf(from, to, header, partOf) {
  for (const end of [header.head_length, header.head_length + header.index_length, to]) {
    const until = Math.min(end, to);
    if (until > from) yield { from, to: until, part: partOf(from), what: 'padding' };
    from = Math.max(from, until);
  }
}

// ---- 8. dtypes ----

const DTYPE_NAMES = new Map([
  ...[8, 16, 32, 64].flatMap((bits) => [[`0,${bits}`, `int${bits}`], [`1,${bits}`, `uint${bits}`]]),
  ['2,16', 'float16'], ['2,32', 'float32'], ['2,64', 'float64'], ['4,16', 'bfloat16'],
  ['5,64', 'complex64'], ['5,128', 'complex128'], ['6,8', 'bool'], ['10,8', 'float8_e4m3fn'], ['12,8', 'float8_e5m2']]);
/** Typed arrays that show the elements as they are; what has none (small floats) is shown as its bits. */
const ARRAYS = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array,
  uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, float16: Uint16Array, bfloat16: Uint16Array,
  float32: Float32Array, float64: Float64Array, complex64: Float32Array, complex128: Float64Array, bool: Uint8Array,
  float8_e4m3fn: Uint8Array, float8_e5m2: Uint8Array };
/** Of the small floats: bits of the exponent and of the mantissa. */
const FLOATS = { float16: [5, 10], bfloat16: [8, 7], float8_e4m3fn: [4, 3], float8_e5m2: [5, 2], float32: [8, 23] };

/** An element type: (code, bits, lanes). */
export class Dtype {
  constructor(code, bits, lanes = 1) {
    this.code = code;
    this.bits = bits;
    this.lanes = lanes;
  }

  is(code, bits, lanes) {
    return this.code === code && this.bits === bits && this.lanes === lanes;
  }

  same(other) {
    return this.is(other.code, other.bits, other.lanes);
  }

  /** Bits of an element. */
  get size() {
    return this.bits * this.lanes;
  }

  /** Bytes of an element of a dtype that this reader knows. */
  get bytes() {
    return this.size / 8;
  }

  /** Its name, or undefined where section 8 does not list it. */
  get name() {
    return this.lanes === 1 ? DTYPE_NAMES.get(`${this.code},${this.bits}`) : undefined;
  }

  toString() {
    return this.name ?? (this.is(1, 1, 1) ? 'bit' : `[${this.code},${this.bits},${this.lanes}]`);
  }
}

const BIT = new Dtype(1, 1);
const UINT8 = new Dtype(1, 8);
const UINT64 = new Dtype(1, 64);

/** Bytes of n elements. */
const byteLength = (n, dtype) => (n * BigInt(dtype.size) + 7n) / 8n;

/** A NaN whose bits (as float64) are not 0x7FF8000000000000: a JavaScript number need not keep them. */
export class NanBits {
  /** @param {bigint} bits */
  constructor(bits) {
    this.bits = bits;
  }

  toString() {
    return `NaN(${this.bits.toString(16)})`;
  }
}

const QUIET_NAN = 0x7FF8000000000000n;
const scratch = new DataView(new ArrayBuffer(8));

/** The float64 of these bits. */
function floatOf(bits) {
  const isNan = (bits >> 52n & 0x7FFn) === 0x7FFn && (bits & 0xFFFFFFFFFFFFFn) !== 0n;
  if (isNan) return bits === QUIET_NAN ? NaN : new NanBits(bits);
  scratch.setBigUint64(0, bits);
  return scratch.getFloat64(0);
}

/** A float of fewer bits as the float64 of the same value; a NaN's payload goes to the top. */
function widen(bits, name) {
  const [exponentBits, mantissaBits] = FLOATS[name];
  const mantissa = bits % 2 ** mantissaBits;
  const exponent = Math.floor(bits / 2 ** mantissaBits) % 2 ** exponentBits;
  const sign = bits >= 2 ** (exponentBits + mantissaBits) ? -1 : 1;
  const top = 2 ** exponentBits - 1;
  const bias = 2 ** (exponentBits - 1) - 1;
  const special = name === 'float8_e4m3fn' ? exponent === top && mantissa === 7 : exponent === top;
  if (special && mantissa === 0) return sign * Infinity;
  if (special && name === 'float8_e4m3fn') return sign > 0 ? NaN : new NanBits(1n << 63n | QUIET_NAN); // its one NaN
  const signBit = sign < 0 ? 1n << 63n : 0n;
  if (special) return floatOf(signBit | 0x7FFn << 52n | BigInt(mantissa) << BigInt(52 - mantissaBits));
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (1 + mantissa / 2 ** mantissaBits) * 2 ** (exponent - bias);
}

/** Element i of little-endian bytes as a value: bool, int, float; complex has none of its own. */
function numberAt(view, i, dtype) {
  switch (dtype.name) {
    case 'bool': return view.getUint8(i) === 1;
    case 'int8': return BigInt(view.getInt8(i));
    case 'int16': return BigInt(view.getInt16(2 * i, true));
    case 'int32': return BigInt(view.getInt32(4 * i, true));
    case 'int64': return view.getBigInt64(8 * i, true);
    case 'uint8': return BigInt(view.getUint8(i));
    case 'uint16': return BigInt(view.getUint16(2 * i, true));
    case 'uint32': return BigInt(view.getUint32(4 * i, true));
    case 'uint64': return view.getBigUint64(8 * i, true);
    case 'float64': return floatOf(view.getBigUint64(8 * i, true));
    case 'float32': return widen(view.getUint32(4 * i, true), 'float32');
    case 'float16': case 'bfloat16': return widen(view.getUint16(2 * i, true), dtype.name);
    default: return widen(view.getUint8(i), dtype.name);
  }
}

// ---- 9. Codecs ----

/** A tensor, array or scalar. `bytes` are its elements, little-endian, row-major. */
export class Tensor {
  /** @param {number} form @param {Dtype} dtype @param {(number | bigint)[]} shape @param {Uint8Array} bytes */
  constructor(form, dtype, shape, bytes) {
    this.form = FORM[form];
    this.dtype = dtype.name;
    this.shape = shape;
    this.bytes = bytes;
  }

  /** Its elements as a typed array; small floats as their bits, complex as pairs. */
  get array() {
    return typed(this.bytes, ARRAYS[this.dtype]);
  }
}

/** Media: bytes, and the attributes that are known of them (section 9). */
export class Media {
  constructor(bytes, attributes) {
    this.bytes = bytes;
    for (const name of ATTRIBUTES) if (attributes[name] != null) this[name] = attributes[name];
  }
}

/** Bytes of a named serializer, which is never run. */
export class Opaque {
  constructor(serializer, bytes) {
    this.serializer = serializer;
    this.bytes = bytes;
  }
}

/** In the place of a cell that this reader cannot read; `error` says why. */
export class Unreadable {
  constructor(error) {
    this.error = error;
  }
}

const ATTRIBUTES = ['mime', 'height', 'width', 'channels', 'mode', 'rate'];

/** A child of a media leaf that is an attribute of the media value. */
function isAttribute(child) {
  if (!ATTRIBUTES.includes(child.name) || child.rank !== 0 || child.form !== NATURAL) return false;
  if (child.name === 'mime' || child.name === 'mode') return child.codec === UTF8;
  return child.codec === NDARRAY && child.dtype.name === (child.name === 'rate' ? 'float64' : 'int64');
}

/** What one call may still make: bytes, and a few for each value. */
class Budget {
  constructor(packed) {
    this.left = packed.limits.result_bytes;
  }

  spend(bytes, node) {
    this.left -= bytes + 32;
    if (this.left < 0) fail('D9', (node.buffers[0]?.at ?? node.at) + 16, node);
  }
}

/** A leaf's buffers as the codecs use them: cells are found, not yet shown. */
class Leaf {
  /** @param {Node} node */
  constructor(node) {
    const elements = (role, dim) => node.buffer(role, dim)?.elements ?? null;
    this.node = node;
    this.data = elements(ROLE.data);
    this.offsets = elements(ROLE.offsets);
    this.itemOffsets = elements(ROLE.item_offsets);
    this.types = elements(ROLE.types);
    this.ndims = elements(ROLE.ndims);
    this.rowIndex = elements(ROLE.row_index);
    this.prefixRow = elements(ROLE.prefix_row);
    this.prefixLength = elements(ROLE.prefix_length);
    const dims = node.codec !== NDARRAY && node.rank >= 2 ? node.rank : 0;
    this.dims = Array.from({ length: dims }, (_, dim) => elements(ROLE.shape, dim));
    this.product = product(node.shape);
    this.attributes = node.children.filter((child) => isAttribute(child) && !child.whyUnreadable());
    /** Offsets that delimit stored rows. */
    this.rowOffsets = this.itemOffsets ?? this.offsets;
  }

  get storedRows() {
    if (!this.rowIndex) return this.node.rows;
    return this.rowOffsets ? this.rowOffsets.count - 1 : Number(BigInt(this.data.count) / this.product);
  }

  /** Stored row of a row. */
  storedRow(row) {
    return this.rowIndex ? Number(this.rowIndex.u64(row)) : row;
  }

  /** Whether a stored row is of a present cell: with a row_index each is. */
  isPresent(stored) {
    return this.rowIndex !== null || this.node.isValid(stored);
  }

  /** Dimensions of a stored row of a ragged codec. */
  shapeOf(stored) {
    const rank = this.ndims ? this.ndims.u8(stored) : this.node.rank;
    if (rank === 0) return [];
    if (this.dims.length) return this.dims.slice(0, rank).map((dim) => dim.u64(stored));
    const own = this.offsets.u64(stored + 1) - this.offsets.u64(stored);
    return [own + (this.prefixLength ? this.prefixLength.u64(stored) : 0n)];
  }

  /** Elements of a stored row: own ones alone, or after those of its leader. */
  piecesOf(stored) {
    if (this.node.codec === NDARRAY) return [[BigInt(stored) * this.product, BigInt(stored + 1) * this.product]];
    const own = [this.offsets.u64(stored), this.offsets.u64(stored + 1)];
    const length = this.prefixLength ? this.prefixLength.u64(stored) : 0n;
    if (length === 0n) return [own];
    const leader = this.offsets.u64(Number(this.prefixRow.u64(stored)));
    return [[leader, leader + length], own];
  }
}

/** The value of a present cell. */
function valueOf(node, row, budget) {
  if (node.kind === KIND.dict) return dictOf(node, row, budget);
  if (node.kind === KIND.list) {
    budget.spend(8 * node.children.length, node);
    const length = node.buffer(ROLE.lengths).elements.number(row);
    return node.children.slice(0, length).map((child) => child.value(row, budget));
  }
  const { leaf } = node;
  const stored = leaf.storedRow(row);
  switch (node.codec) {
    case NDARRAY: case RAGGED_TENSOR: case TYPED_RAGGED: return numbersOf(leaf, stored, budget);
    case MEDIA_BYTES: return new Media(bytesOf(leaf, stored, budget), attributesOf(leaf, row, budget));
    case MEDIA_LIST: return itemsOf(leaf, stored, budget);
    default: {
      const place = (i) => leaf.data.place(leaf.offsets.number(stored) + i);
      return contentOf(node, bytesOf(leaf, stored, budget), place, budget);
    }
  }
}

/** A cell of the codecs of bytes and text from its bytes; `place` says where a byte of it lies. */
function contentOf(node, bytes, place, budget) {
  const { limits } = node.packed;
  switch (node.codec) {
    case UTF8: return node.packed.text('D6', bytes, node, place);
    case JSON_RAGGED: return withCell(node, 'D7', bytes, place, () => new JsonCell(bytes, limits, budget, node).read());
    case MSGPACK: return withCell(node, 'D8', bytes, place, () => new MsgpackCell(bytes, limits, budget, node).read());
    case OPAQUE: return new Opaque(node.parameter, bytes);
    default: return bytes;
  }
}

function dictOf(node, row, budget) {
  const dict = new Map();
  for (const child of node.children) {
    budget.spend(16 + child.nameBytes.length, node);
    const value = child.value(row, budget);
    if (value !== undefined) dict.set(child.name, value);
  }
  return dict;
}

/** The bytes of elements [from, to) of a leaf, with the memory they take held against the limit. */
function piece(leaf, from, to, budget) {
  const bytes = Number(to - from) * leaf.node.dtype.bytes;
  budget.spend(leaf.data.isInPlace ? 0 : bytes, leaf.node);
  return leaf.data.bytes(Number(from), Number(to));
}

function bytesOf(leaf, stored, budget) {
  return piece(leaf, leaf.offsets.u64(stored), leaf.offsets.u64(stored + 1), budget);
}

/** The attributes of a medium, of the dtype's own type whatever types say; a negative integer is as absent. */
function attributesOf(leaf, row, budget) {
  return Object.fromEntries(leaf.attributes.map((child) => {
    if (child.codec === UTF8 || !child.isValid(row)) return [child.name, child.value(row, budget)];
    const stored = child.leaf.storedRow(row);
    const value = numberAt(viewOf(child.leaf.data.bytes(stored, stored + 1)), 0, child.dtype);
    return [child.name, typeof value === 'bigint' && value < 0n ? null : value];
  }));
}

/** A cell of media_list_ragged. */
function itemsOf(leaf, stored, budget) {
  const items = [];
  for (let item = leaf.itemOffsets.number(stored); item < leaf.itemOffsets.number(stored + 1); item++) {
    const form = (leaf.types && leaf.types.u8(item) >> 4) || leaf.node.form;
    const bytes = bytesOf(leaf, item, budget);
    items.push(form === BYTES ? bytes : new Media(bytes, attributesOf(leaf, item, budget)));
  }
  return items;
}

/** A cell of ndarray, ragged_tensor and typed_ragged. */
function numbersOf(leaf, stored, budget) {
  const { node } = leaf;
  const shape = node.codec === NDARRAY ? node.shape : leaf.shapeOf(stored);
  const pieces = leaf.piecesOf(stored).map(([from, to]) => piece(leaf, from, to, budget));
  if (pieces.length > 1) budget.spend(pieces[0].length + pieces[1].length, node);
  const bytes = pieces.length === 1 ? pieces[0] : joined(pieces);
  const type = leaf.types ? leaf.types.u8(stored) : 0;
  const form = type >> 4 || node.form;
  const wrong = firstWrongNumber(bytes, node.dtype, type & 15);
  if (wrong >= 0) fail(wrongNumberRule(type & 15), placeInCell(leaf, stored, wrong), node);
  if (form !== NATURAL && form !== LIST) return new Tensor(form, node.dtype, shape.map(dimension), bytes);
  return nest(shape, 0, new Numbers(node.dtype, type & 15, bytes), budget, node);
}

function joined(pieces) {
  const bytes = new Uint8Array(pieces[0].length + pieces[1].length);
  bytes.set(pieces[0]);
  bytes.set(pieces[1], pieces[0].length);
  return bytes;
}

/** Where byte `at` of a stored row's elements lies. */
function placeInCell(leaf, stored, at) {
  const size = leaf.node.dtype.bytes;
  let element = BigInt(Math.floor(at / size));
  for (const [from, to] of leaf.piecesOf(stored)) {
    if (element < to - from) return leaf.data.place(Number(from + element), at % size);
    element -= to - from;
  }
  return leaf.data.place(0);
}

/** Elements of a cell one after the other, as values. */
class Numbers {
  constructor(dtype, type, bytes) {
    this.dtype = dtype;
    this.type = type;
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.i = 0;
  }

  next() {
    const { dtype, type, i } = this;
    this.i++;
    const complex = dtype.code === 5;
    if (complex) return new Tensor(SCALAR, dtype, [], this.bytes.subarray(i * dtype.bytes, (i + 1) * dtype.bytes));
    const value = numberAt(this.view, i, dtype);
    return type === 1 ? Number(value) === 1 : type === 2 ? BigInt(value) : value;
  }
}

/** Nested lists of numbers; of no dimension the number itself. */
function nest(shape, dim, numbers, budget, node) {
  budget.spend(0, node);
  if (dim === shape.length) return numbers.next();
  const list = [];
  for (let i = 0n; i < shape[dim]; i++) list.push(nest(shape, dim + 1, numbers, budget, node));
  return list;
}

const EXACT = { float16: 2 ** 11, float32: 2 ** 24, float64: 2 ** 53 };
const wrongNumberRule = (type) => (type === 0 ? 'D3' : 'D5');

/** The first byte (type 0) or element (its first byte) that cannot be a number of this type (D3, D5), or -1. */
function firstWrongNumber(bytes, dtype, type) {
  if (type === 0) return dtype.name === 'bool' ? bytes.findIndex((byte) => byte > 1) : -1;
  const view = viewOf(bytes);
  for (let i = 0; i < bytes.length / dtype.bytes; i++) {
    const value = numberAt(view, i, dtype);
    const exact = type === 1 ? (value === 0n || value === 1n || Object.is(value, 0) || value === 1)
      : Number.isInteger(value) && Math.abs(value) <= EXACT[dtype.name] && !Object.is(value, -0);
    if (!exact) return i * dtype.bytes;
  }
  return -1;
}

// ---- 10. Masks and absent cells; a node as its caller reads it ----

Object.assign(Node.prototype, /** @lends Node.prototype */ {
  /** Why this reader cannot read it: the error's name, or null. Codec before role before packing before dtype. */
  whyUnreadable() {
    if (this.unreadable === undefined) {
      const numbers = this.isLeaf && this.codec >= NDARRAY && this.codec <= TYPED_RAGGED;
      this.unreadable = !this.isKnown ? 'UNSUPPORTED_CODEC'
        : this.buffers.some((b) => !b.isKnownRole) ? 'UNSUPPORTED_ROLE'
          : this.buffers.some((b) => !b.isReadable) ? 'UNSUPPORTED_PACKING'
            : numbers && !this.dtype.name ? 'UNSUPPORTED_DTYPE' : null;
    }
    return this.unreadable;
  },

  /** Checks what bears on reading this node, once: its part of the index, and its parents'. */
  prepare() {
    if (this.sound) return;
    this.parent?.prepare();
    if (this.whyUnreadable()) return;
    if (this.isLeaf) for (const child of this.leaf.attributes) child.checkIndex();
    this.checkIndex();
  },

  checkIndex() {
    if (this.sound) return;
    for (const b of this.buffers) if (b.isBlocks) b.elements.checkHeaders();
    for (const b of this.buffers) checkSize(b);
    new IndexChecks(this, new Walked(this.packed)).run();
    this.sound = true;
  },

  /** Whether the cell of a row is a value, neither null nor missing. */
  isValid(row) {
    if (this.isLeaf && this.codec === NULL) return false;
    const validity = this.buffer(ROLE.validity);
    return !validity || validity.elements.bit(row) === 1;
  },

  /** Whether the key or index does not exist in that row. */
  isMissing(row) {
    const missing = this.buffer(ROLE.missing);
    return Boolean(missing) && missing.elements.bit(row) === 1;
  },

  /** The value of a row, of nodes that are prepared. */
  value(row, budget) {
    const why = this.whyUnreadable();
    if (why) return new Unreadable(why);
    this.prepare();
    budget.spend(0, this);
    if (!this.isValid(row)) return this.isMissing(row) ? undefined : null;
    return valueOf(this, row, budget);
  },

  /**
   * One cell.
   * @param {number} row
   */
  cell(row, budget = new Budget(this.packed)) {
    const inRange = Number.isInteger(row) && row >= 0 && row < this.rows;
    if (!inRange) throw new PackbufError('OUT_OF_RANGE', { path: this.path, row });
    return withinMemory(() => {
      this.prepare();
      return this.value(row, budget);
    });
  },

  /**
   * The cells of some rows.
   * @param {Selection} [selection] all, a range { from, to, step }, row numbers, or a mask of booleans
   */
  cells(selection) {
    const budget = new Budget(this.packed);
    const cells = [];
    for (const row of selected(selection, this.rows)) cells.push(this.cell(row, budget));
    return cells;
  },

  /**
   * An ndarray as a whole: a view of the packed buffer where its elements lie there, aligned, in one run; else a copy.
   * Absent cells are zero.
   */
  array() {
    if (!this.isLeaf || this.codec !== NDARRAY) throw new PackbufError('WRONG_TYPE', { path: this.path });
    this.prepare();
    if (this.whyUnreadable()) throw new PackbufError(this.whyUnreadable(), { path: this.path });
    const { leaf } = this;
    const size = Number(leaf.product) * this.dtype.bytes;
    const shape = [this.rows, ...this.shape.map(dimension)];
    let bytes = null;
    if (!leaf.rowIndex) bytes = this.buffer(ROLE.data).bytes();
    else {
      new Budget(this.packed).spend(this.rows * size, this);
      bytes = new Uint8Array(this.rows * size);
      for (let row = 0; row < this.rows; row++)
        if (this.isValid(row)) {
          const stored = leaf.storedRow(row) * Number(leaf.product);
          bytes.set(leaf.data.bytes(stored, stored + Number(leaf.product)), row * size);
        }
    }
    return { dtype: this.dtype.name, shape, data: typed(bytes, ARRAYS[this.dtype.name]) };
  },
});

Object.defineProperty(Node.prototype, 'leaf', {
  get() {
    Object.defineProperty(this, 'leaf', { value: new Leaf(this) });
    return this.leaf;
  },
});

/** @typedef {undefined | { from?: number, to?: number, step?: number } | Iterable<number> | boolean[]} Selection */

/** The rows of a selection, in its order. */
function* selected(selection, rows) {
  if (selection === undefined || !(Symbol.iterator in Object(selection))) {
    const { from = 0, to = rows, step = 1 } = selection ?? {};
    if (!Number.isInteger(step) || step === 0) throw new PackbufError('INVALID_ARGUMENT');
    for (let row = from; step > 0 ? row < to : row > to; row += step) yield row;
  } else if (Array.isArray(selection) && typeof selection[0] === 'boolean') {
    if (selection.length !== rows) throw new PackbufError('ROW_COUNT');
    for (let row = 0; row < rows; row++) if (selection[row]) yield row;
  } else yield* selection;
}

// ---- 11. JSON cells ----

/** Where a cell stops being what it should be; `limit`: nested too deeply, or larger than what may be made of it. */
class Wrong {
  constructor(at, limit = false) {
    this.at = at;
    this.limit = limit;
  }
}

/** Reads a cell of JSON or MessagePack; what is wrong in it is the rule's, at the byte, or D9 at its first byte. */
function withCell(node, rule, bytes, place, read) {
  if (bytes.length > node.packed.limits.cell_bytes) fail('D9', place(0), node);
  try {
    return read();
  } catch (error) {
    if (error instanceof Wrong) fail(error.limit ? 'D9' : rule, place(error.limit ? 0 : error.at), node);
    throw error;
  }
}

const NUMBER = /-?(?:Infinity|(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)/y;
const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };
const [QUOTE, BACKSLASH, MINUS, COMMA, COLON] = [0x22, 0x5C, 0x2D, 0x2C, 0x3A];

/** One JSON text. Without a budget it is checked, and nothing is kept of it. */
class JsonCell {
  constructor(bytes, limits, budget, node) {
    const end = wrongUtf8(bytes);
    this.isUtf8 = end < 0;
    /** What is not UTF-8 ends the text. */
    this.bytes = this.isUtf8 ? bytes : bytes.subarray(0, end);
    this.limits = limits;
    this.budget = budget;
    this.node = node;
    this.at = 0;
  }

  read() {
    this.space();
    const first = this.at;
    const value = this.value(0);
    this.space();
    if (this.at < this.bytes.length || !this.isUtf8) throw new Wrong(this.at);
    if (value === null && this.bytes[first] === 0x6E) throw new Wrong(first);
    return value;
  }

  space() {
    for (; this.at < this.bytes.length; this.at++) {
      const byte = this.bytes[this.at];
      if (byte !== 0x20 && byte !== 0x0A && byte !== 0x0D && byte !== 0x09) return;
    }
  }

  value(depth) {
    this.budget?.spend(0, this.node);
    switch (this.bytes[this.at]) {
      case 0x7B: return this.object(depth + 1);
      case 0x5B: return this.list(depth + 1);
      case QUOTE: return this.string();
      case 0x74: return this.word('true', true);
      case 0x66: return this.word('false', false);
      case 0x6E: return this.word('null', null);
      case 0x4E: return this.word('NaN', NaN);
      case 0x49: return this.word('Infinity', Infinity);
      default: return this.number();
    }
  }

  /** The byte that must come next. */
  expect(byte) {
    if (this.bytes[this.at] !== byte) throw new Wrong(this.at);
    this.at++;
  }

  word(text, value) {
    for (const letter of text) this.expect(letter.charCodeAt(0));
    return value;
  }

  list(depth) {
    if (depth > this.limits.cell_depth) throw new Wrong(0, true);
    const list = [];
    this.at++;
    this.space();
    if (this.bytes[this.at] !== 0x5D)
      for (;;) {
        const value = this.value(depth);
        if (this.budget) list.push(value);
        this.space();
        if (this.bytes[this.at] === 0x5D) break;
        this.expect(COMMA);
        this.space();
      }
    this.at++;
    return list;
  }

  object(depth) {
    if (depth > this.limits.cell_depth) throw new Wrong(0, true);
    const object = new Map();
    this.at++;
    this.space();
    if (this.bytes[this.at] !== 0x7D)
      for (;;) {
        const start = this.at;
        if (this.bytes[start] !== QUOTE) throw new Wrong(start);
        const key = this.string(true);
        if (object.has(key)) throw new Wrong(start);
        if (object.size >= MOST_KEYS) throw new Wrong(0, true);
        object.set(key, null);
        this.space();
        this.expect(COLON);
        this.space();
        const value = this.value(depth);
        if (this.budget) object.set(key, value);
        this.space();
        if (this.bytes[this.at] === 0x7D) break;
        this.expect(COMMA);
        this.space();
      }
    this.at++;
    return object;
  }

  /** A string; its text only where it is asked for. */
  string(keep = this.budget !== null) {
    const { bytes } = this;
    const begin = this.at;
    const parts = [];
    this.at++;
    for (;;) {
      const start = this.at;
      const isPlain = (byte) => byte >= 0x20 && byte !== QUOTE && byte !== BACKSLASH;
      while (this.at < bytes.length && isPlain(bytes[this.at])) this.at++;
      const run = bytes.subarray(start, this.at);
      this.budget?.spend(run.length, this.node);
      if (keep && this.at - begin > MOST_TEXT) throw new Wrong(0, true);
      if (keep) parts.push(textOf(run));
      if (bytes[this.at] === QUOTE) break;
      this.expect(BACKSLASH); // a control character, or the end
      const escaped = this.escape(this.at - 1);
      if (keep) parts.push(escaped);
    }
    this.at++;
    return parts.length === 1 ? parts[0] : parts.join('');
  }

  /** What stands for an escape, whose backslash is at `start` and behind us. */
  escape(start) {
    const letter = String.fromCharCode(this.bytes[this.at] ?? 0);
    if (letter !== 'u') {
      if (!(letter in ESCAPES)) throw new Wrong(this.at);
      this.at++;
      return ESCAPES[letter];
    }
    const unit = this.unit();
    if (unit < 0xD800 || unit > 0xDFFF) return String.fromCharCode(unit);
    if (unit > 0xDBFF) throw new Wrong(start);
    for (const byte of [BACKSLASH, 0x75]) {
      if (this.at >= this.bytes.length) throw new Wrong(this.at);
      if (this.bytes[this.at] !== byte) throw new Wrong(start);
      if (byte === BACKSLASH) this.at++;
    }
    const low = this.unit();
    if (low < 0xDC00 || low > 0xDFFF) throw new Wrong(start);
    return String.fromCharCode(unit, low);
  }

  /** The u of an escape and four hexadecimal digits. */
  unit() {
    let unit = 0;
    this.at++;
    for (let i = 0; i < 4; i++, this.at++) {
      const digit = '0123456789abcdef'.indexOf(String.fromCharCode(this.bytes[this.at] ?? 0).toLowerCase());
      if (digit < 0) throw new Wrong(this.at);
      unit = unit * 16 + digit;
    }
    return unit;
  }

  number() {
    const { bytes } = this;
    const start = this.at;
    if (bytes[this.at] === MINUS) this.at++;
    if (bytes[this.at] === 0x49) {
      this.word('Infinity');
      return -Infinity;
    }
    if (bytes[this.at] === 0x30) this.at++;
    else this.digits();
    const fraction = bytes[this.at] === 0x2E;
    if (fraction) {
      this.at++;
      this.digits();
    }
    const exponent = bytes[this.at] === 0x65 || bytes[this.at] === 0x45;
    if (exponent) {
      this.at++;
      if (bytes[this.at] === MINUS || bytes[this.at] === 0x2B) this.at++;
      this.digits();
    }
    if (!fraction && !exponent) return this.integer(start);
    const value = Number(textOf(bytes.subarray(start, this.at)));
    if (!Number.isFinite(value)) throw new Wrong(start);
    return value;
  }

  digits() {
    const isDigit = () => this.bytes[this.at] >= 0x30 && this.bytes[this.at] <= 0x39;
    if (!isDigit()) throw new Wrong(this.at);
    while (isDigit()) this.at++;
  }

  /** An integer of any size; one that JavaScript cannot hold is a matter of limits. */
  integer(start) {
    if (!this.budget) return 0n;
    this.budget.spend(this.at - start, this.node);
    if (this.at - start > INTEGER_DIGITS) throw new Wrong(start, true);
    return BigInt(textOf(this.bytes.subarray(start, this.at)));
  }
}

/** Digits of an integer that is made a bigint: reading one takes time beyond proportion. */
const INTEGER_DIGITS = 2 ** 20;
/** What JavaScript can hold: bytes of a string, keys of a dict. */
const MOST_TEXT = 2 ** 28;
const MOST_KEYS = 2 ** 23;

// ---- 12. MessagePack cells ----

/**
 * A dict with a key that is no string: pairs, in first-seen order. Keys differ by section 16, so that 1, 1.0 and "1"
 * are three.
 */
export class Pairs {
  constructor(pairs) {
    this.pairs = pairs;
  }

  get(key) {
    return this.pairs.find(([k]) => equal(k, key))?.[1];
  }
}

/** One MessagePack object. Without a budget it is checked, and nothing is kept of it. */
class MsgpackCell {
  constructor(bytes, limits, budget, node) {
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.limits = limits;
    this.budget = budget;
    this.node = node;
    this.at = 0;
  }

  read() {
    const value = this.value(0);
    if (this.at < this.bytes.length) throw new Wrong(this.at);
    if (value === null) throw new Wrong(0);
    return value;
  }

  /** The next n bytes, which must be there. */
  take(n) {
    if (n > this.bytes.length - this.at) throw new Wrong(this.bytes.length);
    this.at += n;
    return this.at - n;
  }

  unsigned(bytes) {
    const at = this.take(bytes);
    return bytes === 1 ? this.view.getUint8(at) : bytes === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }

  value(depth) {
    this.budget?.spend(0, this.node);
    const start = this.take(1);
    const type = this.bytes[start];
    if (type < 0x80) return BigInt(type);
    if (type < 0x90) return this.map(type & 15, depth + 1);
    if (type < 0xA0) return this.list(type & 15, depth + 1);
    if (type < 0xC0) return this.string(type & 31);
    if (type >= 0xE0) return BigInt(type - 256);
    const size = 1 << (type & 1 ? 1 : 0); // of what comes in two sizes
    switch (type) {
      case 0xC0: return null;
      case 0xC2: return false;
      case 0xC3: return true;
      case 0xC4: case 0xC5: case 0xC6: return this.binary(this.unsigned(1 << type - 0xC4));
      case 0xC7: case 0xC8: case 0xC9: return this.extension(start, this.unsigned(1 << type - 0xC7));
      case 0xCA: return widen(this.view.getUint32(this.take(4)), 'float32');
      case 0xCB: return floatOf(this.view.getBigUint64(this.take(8)));
      case 0xCC: case 0xCD: case 0xCE: return BigInt(this.unsigned(1 << type - 0xCC));
      case 0xCF: return this.view.getBigUint64(this.take(8));
      case 0xD0: return BigInt(this.view.getInt8(this.take(1)));
      case 0xD1: return BigInt(this.view.getInt16(this.take(2)));
      case 0xD2: return BigInt(this.view.getInt32(this.take(4)));
      case 0xD3: return this.view.getBigInt64(this.take(8));
      case 0xD4: case 0xD5: case 0xD6: case 0xD7: case 0xD8: return this.extension(start, 1 << type - 0xD4);
      case 0xD9: case 0xDA: case 0xDB: return this.string(this.unsigned(1 << type - 0xD9));
      case 0xDC: case 0xDD: return this.list(this.unsigned(2 * size), depth + 1);
      case 0xDE: case 0xDF: return this.map(this.unsigned(2 * size), depth + 1);
      default: throw new Wrong(start);
    }
  }

  string(n) {
    const at = this.take(n);
    const bytes = this.bytes.subarray(at, at + n);
    const wrong = wrongUtf8(bytes);
    if (wrong >= 0) throw new Wrong(at + wrong);
    this.budget?.spend(n, this.node);
    if (n > MOST_TEXT) throw new Wrong(0, true);
    return textOf(bytes);
  }

  binary(n) {
    const at = this.take(n);
    return this.bytes.subarray(at, at + n);
  }

  list(n, depth) {
    if (depth > this.limits.cell_depth) throw new Wrong(0, true);
    const list = [];
    for (let i = 0; i < n; i++) {
      const value = this.value(depth);
      if (this.budget) list.push(value);
    }
    return list;
  }

  map(n, depth) {
    if (depth > this.limits.cell_depth) throw new Wrong(0, true);
    const seen = new Set();
    const pairs = [];
    for (let i = 0; i < n; i++) {
      const start = this.at;
      const key = this.key(depth);
      const identity = identityOf(key);
      if (seen.has(identity)) throw new Wrong(start);
      if (seen.size >= MOST_KEYS) throw new Wrong(0, true);
      seen.add(identity);
      const value = this.value(depth);
      if (this.budget) pairs.push([key, value]);
    }
    return pairs.every(([key]) => typeof key === 'string') ? new Map(pairs) : new Pairs(pairs);
  }

  /** nil, bool, integer, float, string or bytes: what it is no list, map or ext but 1 */
  key(depth) {
    const start = this.at;
    const type = this.bytes[start];
    if (type >= 0xDC && type <= 0xDF) this.take(type & 1 ? 5 : 3); // what is cut short is cut short first
    if ((type >= 0x80 && type < 0xA0) || (type >= 0xDC && type <= 0xDF)) throw new Wrong(start);
    const key = this.value(depth);
    if (key instanceof Tensor || key instanceof Media || key instanceof Opaque) throw new Wrong(start);
    return key;
  }

  /** Anything wrong inside an ext is the ext's. */
  extension(start, n) {
    const type = this.view.getInt8(this.take(1));
    const at = this.take(n);
    try {
      return new Extension(this, this.bytes.subarray(at, at + n)).read(type);
    } catch (error) {
      throw error instanceof Wrong && !error.limit ? new Wrong(start) : error;
    }
  }
}

/** What makes two map keys equal under section 16, as text. */
function identityOf(key) {
  if (key === null) return 'nil';
  if (typeof key === 'number') return Object.is(key, -0) ? 'number -0' : `number ${key}`;
  if (key instanceof NanBits) return `nan ${key.bits}`;
  if (key instanceof Uint8Array) return `bytes ${hexOf(key)}`;
  if (key instanceof BigDigits) return `bigint ${key}`;
  return `${typeof key} ${key}`;
}

/** An integer that is checked and not kept: its digits tell it from other keys. */
class BigDigits {
  constructor(digits) {
    this.digits = digits;
  }

  toString() {
    return textOf(this.digits);
  }
}

/** The body of an extension type. */
class Extension {
  constructor(cell, body) {
    this.cell = cell;
    this.body = body;
    this.inner = new MsgpackCell(body, cell.limits, cell.budget, cell.node);
  }

  read(type) {
    switch (type) {
      case 1: return this.integer();
      case 2: return this.tensor();
      case 3: return this.media();
      case 4: return this.opaque();
      default: throw new Wrong(0);
    }
  }

  integer() {
    for (let i = 0; i < this.body.length; i++) {
      const byte = this.body[i];
      if (!(byte >= 0x30 && byte <= 0x39) && !(i === 0 && byte === MINUS)) throw new Wrong(i);
    }
    const negative = this.body[0] === MINUS;
    const digits = this.body.length - (negative ? 1 : 0);
    if (digits < 19 || this.body[negative ? 1 : 0] === 0x30) throw new Wrong(0);
    if (digits > 20 && !this.cell.budget) return new BigDigits(this.body); // beyond 64 bits, whatever they are
    if (digits > INTEGER_DIGITS) throw new Wrong(0, true);
    const value = BigInt(textOf(this.body));
    if (value >= -(1n << 63n) && value < 1n << 64n) throw new Wrong(0);
    return value;
  }

  tensor() {
    const { body } = this;
    if (body.length < 4) throw new Wrong(0);
    const [form, code, bits, rank] = body;
    const dtype = new Dtype(code, bits);
    if (form < ARRAY || form > SCALAR || !dtype.name || rank > 8) throw new Wrong(0);
    if ((form === SCALAR && rank !== 0) || body.length < 4 + 8 * rank) throw new Wrong(0);
    const shape = Array.from({ length: rank }, (_, i) => viewOf(body).getBigUint64(4 + 8 * i, true));
    const elements = body.subarray(4 + 8 * rank);
    if (product(shape.filter((n) => n !== 0n)) * BigInt(dtype.bytes) >= SIZE_END) throw new Wrong(0);
    if (product(shape) * BigInt(dtype.bytes) !== BigInt(elements.length)) throw new Wrong(0);
    if (firstWrongNumber(elements, dtype, 0) >= 0) throw new Wrong(0);
    return new Tensor(form, dtype, shape.map(dimension), elements);
  }

  media() {
    const type = this.body[0];
    if ((type & 0xF0) !== 0x80 && type !== 0xDE && type !== 0xDF) throw new Wrong(0);
    const inner = this.inner;
    inner.budget ??= new Budget(this.cell.node.packed); // six attributes
    const map = inner.value(0);
    const names = map instanceof Map ? [...map.keys()] : [null];
    let next = 0;
    for (const name of names) {
      const i = ATTRIBUTES.indexOf(name, next);
      const value = map instanceof Map ? map.get(name) : null;
      const fits = name === 'mime' || name === 'mode' ? typeof value === 'string'
        : name === 'rate' ? typeof value === 'number' || value instanceof NanBits
          : typeof value === 'bigint' && value >= 0n && value < 1n << 63n;
      if (i < 0 || !fits) throw new Wrong(0);
      next = i + 1;
    }
    return new Media(this.body.subarray(inner.at), Object.fromEntries(map));
  }

  opaque() {
    const type = this.body[0];
    if (!((type >= 0xA0 && type < 0xC0) || (type >= 0xD9 && type <= 0xDB))) throw new Wrong(0);
    const serializer = this.inner.value(0);
    return new Opaque(serializer, this.body.subarray(this.inner.at));
  }
}

// ---- 13. Rules ----

/** Each rule with its error and what holds where it is kept: the table of section 13. */
export const RULES = new Map(`
H1 TRUNCATED at least 128 bytes are there: file header and directory
H2 BAD_MAGIC the magic is right
H3 UNSUPPORTED_VERSION version_major is 1
H4 UNSUPPORTED_FEATURE no unknown bit of required_features is set
H5 UNSUPPORTED_KIND kind is 1 or 2
H6 BAD_HEADER alignment_exponent is 6 to 12
H7 BAD_HEADER head_length is at least 128, the three lengths are multiples of the alignment, and head and index lie
  within the total
H8 TRUNCATED all total_length bytes are there
H9 TRAILING_BYTES a file has no bytes after total_length
H10 LIMIT head_length, node_count, buffer_count, metadata_count and rows are within the caller's limits, strings_length
  below 2^32
H11 HEAD_CHECKSUM head_checksum matches
H12 BAD_HEADER each stride is at least that of version 1.0 and a multiple of 8 (name_stride: of 4)
H13 NOT_ZERO the directory's zero bytes are zero
H14 BAD_HEADER head_length is what the tables and strings need, rounded up to the alignment
H15 NOT_ZERO the bytes after the strings are zero up to head_length
N1 BAD_NODE kind is 1, 2 or 3 and scope 0 or 1, no scope 0 after a scope 1 at the top, a child has its parent's scope
N2 BAD_NODE parent is the node that encloses it (0xFFFFFFFF at the top), descendants stays within the parent's subtree
  and the table
N3 DEPTH the path is not longer than the depth limit
N4 BAD_NODE a leaf has children only under codec 6 and 7, and those are leaves
N5 BAD_NODE dict and list have codec, dtype, form, rank and logical type 0; a leaf has a codec other than 0; null has
  dtype 0, codecs 5 to 11 have uint8
N6 NOT_ZERO the record's zero bytes are zero
N7 BAD_SHAPE rank is at most 8, and 0 unless the codec is 2, 3 or 4
N8 BAD_NODE form is one that the codec allows
N9 BAD_NODE rows is what scope and parent demand
N10 BAD_LAYOUT name, shape and parameter lie where the strings before them end, within the strings
N11 BAD_NAME a child of a list has an empty name
N12 BAD_UTF8 name and parameter are UTF-8
N13 BAD_SHAPE the dimensions of an ndarray cell, times rows and element size, stay below 2^63
N14 BAD_NODE first_buffer and buffer_count take the next records of the buffer table; all nodes take them all
N15 BAD_NODE field_count and value_count are the numbers of top-level nodes
B1 BAD_BUFFER node is the node that lists the record; (role, dim) ascend within a node
B2 BAD_BUFFER storage is 1 to 5, dim is 0 unless the role is shape, then below the rank
B3 BAD_BUFFER dtype is that of the role; that of role data is the leaf's; bits x lanes is not 0
B4 BAD_BUFFER the byte length of count stays below 2^63
B5 NOT_ZERO fields that the storage does not use are zero
B6 BAD_BUFFER an inline buffer has at most 16 bytes; packing is 0 unless the storage is stored or alias
B7 BAD_BUFFER a constant of 1 bit is 0 or 1; a constant bool is 0 or 1
B8 BAD_BUFFER a sequence is of int64 or uint64 and does not overflow
B9 BAD_BUFFER an alias names an earlier stored record of the same section and repeats its dtype, packing, count, offset,
  length, value and headers_offset
B10 BAD_BUFFER a plain stored buffer's length is the byte length of count
B11 BAD_LAYOUT a stored buffer lies where the cursor of its section stands, within the section
B12 BAD_LAYOUT the cursors end at index_length and total_length
B13 BAD_BUFFER a leaf of a known codec and a node have the buffers that their kind demands and no others, with the count
  that rows demands
B14 BAD_BUFFER a buffer packed in blocks is not data of the codecs 5 to 11, and has elements, of a dtype that section 20
  packs, a length that is a multiple of 64, and value zero
M1 BAD_METADATA node is a node or 0xFFFFFFFF
M2 BAD_METADATA records ascend strictly by (node, key)
M3 BAD_LAYOUT key and value lie where the strings before them end; the last string ends the strings
M4 BAD_UTF8 key and value are UTF-8
M5 NOT_ZERO the record's zero bytes are zero
S1 BAD_NAME the name index has one entry for each node that has a name, and entries are such nodes
S2 BAD_NAME entries ascend by (parent, scope, name)
S3 DUPLICATE_NAME no two siblings of one scope have the same name
I1 INDEX_CHECKSUM index_checksum matches
I2 NOT_ZERO padding in the index is zero
I3 BAD_MASK bits after the last row are zero
I4 BAD_MASK missing is set only where validity is 0; there is no missing mask without validity, but under codec null
I5 BAD_MASK where a dict or list is absent, each child's cell is null and not missing
I6 BAD_MASK a child of a list is missing exactly in the present rows that are shorter
I7 BAD_OFFSETS offsets start at 0, do not descend, and end at the count they delimit
I8 BAD_OFFSETS an absent cell has extent 0, an absent list length 0
I9 BAD_OFFSETS a length is at most the number of the node's children
I10 BAD_SHAPE ndims is at most rank; an absent cell has ndims 0 and zero shape; dimensions that a cell does not have
  are 0
I11 BAD_SHAPE the product of a cell's dimensions is its extent (a cell of 0 dimensions: 1)
I12 BAD_TYPES a cell's type is one that its codec, form and dtype allow; an absent cell has type 0
I13 BAD_REFERENCE row_index of a present cell is below the number of stored rows; of an absent cell 0
I14 BAD_REFERENCE a prefix refers to a stored row that refers to none and is as long at least; without a prefix
  prefix_row is 0; an absent cell has none
I15 BAD_BLOCK a block header has a mode, and a base, width, shift and extra that the mode allows
I16 BAD_BLOCK payloads follow each other from place 0 to length; those of modes 0, 1, 2, 3 and 5 that are not filled are
  as long as their mode says
I17 BAD_BLOCK a payload in the index is what its mode says: dense rows, fill, lines, tops, number of bytes, zero bytes
D1 DATA_CHECKSUM each data checksum matches
D2 NOT_ZERO padding in the data is zero
D3 BAD_BOOL a bool byte is 0 or 1
D4 NOT_ZERO an absent cell of an ndarray is zero bytes
D5 BAD_TYPES a cell whose number type is not the dtype's own is exact
D6 BAD_UTF8 a cell of utf8_ragged is UTF-8
D7 BAD_JSON a cell of json_ragged is JSON as section 11 says
D8 BAD_MSGPACK a cell of msgpack_ragged is MessagePack as section 12 says
D9 LIMIT what is unpacked stays within the caller's limits
D10 BAD_BLOCK a payload in the data is what its mode says (I17)
`.replaceAll('\n  ', ' ').trim().split('\n').map((line) => {
    const [rule, error, ...words] = line.split(' ');
    return [rule, { error, holds: words.join(' ') }];
  }));

/** Throws the error of a rule. */
function fail(rule, offset, node = null) {
  throw new PackbufError(RULES.get(rule).error, { rule, offset, path: node?.path });
}

/**
 * Finds the first row that is wrong. Where all buffers are constants or lines over a stretch of rows, no more than some
 * of its rows are looked at: a rule says of them that polynomials of a degree of at most 8 are equal, which twelve rows
 * decide, or that lines are in an order, which the first and the last row decide; between these a row that is wrong has
 * only such after it.
 * @param {number} rows
 * @param {({ isLiteral?: boolean, stretch(row: number): number } | null)[]} buffers
 * @param {(row: number) => (() => never) | null | undefined | false} wrong what to throw for a row
 */
function inspect(rows, buffers, wrong) {
  const all = buffers.filter((b) => b);
  const literal = all.some((b) => b.isLiteral);
  for (let row = 0; row < rows;) {
    let end = row + 1;
    if (!literal) end = all.reduce((least, b) => Math.min(least, b.stretch(row)), rows);
    for (const some = Math.min(end, row + 12); row < some; row++) {
      const error = wrong(row);
      if (error) error();
    }
    if (row >= end) continue;
    if (wrong(end - 1)) {
      let [good, bad] = [row - 1, end - 1];
      while (bad - good > 1) {
        const middle = Math.floor((good + bad) / 2);
        if (wrong(middle)) bad = middle;
        else good = middle;
      }
      wrong(bad)();
    }
    row = end;
  }
}

/** Offsets as rows see them: the element of a row and the next. */
const pairs = (offsets) => offsets && {
  isLiteral: offsets.isLiteral,
  stretch: (row) => Math.max(row + 1, offsets.stretch(row) - 1),
};

/** D9: what verification walks at full length, aliases and packed buffers, added up. */
class Walked {
  constructor(packed) {
    this.limit = BigInt(packed.limits.decoded_bytes);
    this.bytes = 0n;
  }

  charge(b) {
    if (!b.isKnownRole || !b.isReadable || !(b.storage === STORAGE.alias || b.isBlocks)) return;
    this.bytes += b.rawLength;
    if (this.bytes > this.limit) fail('D9', b.at + 16, b.node);
  }

  chargeIndex(node) {
    for (const b of node.buffers) if (!b.isData) this.charge(b);
  }
}

/** D9 for one buffer: its elements unpacked. */
function checkSize(b) {
  const tooLong = b.rawLength > BigInt(b.packed.limits.decoded_bytes);
  if (b.isKnownRole && b.isReadable && tooLong) fail('D9', b.at + 16, b.node);
}

/** Rules I3 to I14 of one node. */
class IndexChecks {
  constructor(node, walked) {
    this.node = node;
    this.walked = walked;
    this.leaf = node.leaf;
    this.validity = node.buffer(ROLE.validity);
    this.missing = node.buffer(ROLE.missing);
    this.rowIndex = node.buffer(ROLE.row_index);
    this.offsets = node.buffer(ROLE.offsets);
    this.types = node.buffer(ROLE.types);
    this.ndims = node.buffer(ROLE.ndims);
    this.shapes = node.buffers.filter((b) => b.role === ROLE.shape);
  }

  run() {
    const { node } = this;
    for (const b of node.buffers) if (!b.isData && b.countExact > NUMBER_END) fail('D9', b.at + 16, node);
    if (node.rowsExact > NUMBER_END) fail('D9', node.at + 48, node);
    this.walked.chargeIndex(node);
    this.checkMasks();
    this.checkParent();
    if (!node.isKnown || node.buffers.some((b) => !b.isKnownRole)) return;
    if (node.kind === KIND.list) this.checkLengths();
    if (node.isLeaf && node.codec !== NULL) this.checkLeaf();
  }

  /** Whether all of these that exist can be read. */
  can(...buffers) {
    return buffers.every((b) => !b || b.isReadable);
  }

  /** I3, I4 */
  checkMasks() {
    const { node, validity, missing } = this;
    const spare = node.rows % 8;
    for (const mask of [validity, missing]) {
      if (!mask || spare === 0 || !this.can(mask) || mask.isComputed) continue;
      const last = Math.floor(node.rows / 8);
      if (mask.elements.byte(last) >> spare !== 0) fail('I3', mask.elements.bytePlace(last), node);
    }
    if (!missing || (node.isLeaf && node.codec === NULL)) return;
    const wrong = () => fail('I4', missing.at, node);
    if (!validity) wrong();
    if (this.can(validity, missing))
      inspect(node.rows, [validity.elements, missing.elements],
        (row) => node.isValid(row) && node.isMissing(row) && wrong);
  }

  /** I5, I6: what the parent's rows demand of a child's masks */
  checkParent() {
    const { node, validity, missing } = this;
    const { parent } = node;
    const mask = parent?.buffer(ROLE.validity);
    const list = parent?.kind === KIND.list;
    if (!list && !(parent?.kind === KIND.dict && mask)) return;
    this.walked.chargeIndex(parent);
    if (mask && this.can(mask, validity, missing)) {
      const wrong = () => fail('I5', (validity ?? node).at, node);
      inspect(node.rows, [mask, validity, missing].map((b) => b?.elements),
        (row) => !parent.isValid(row) && (node.isValid(row) || node.isMissing(row)) && wrong);
    }
    const lengths = parent.buffer(ROLE.lengths);
    if (list && this.can(mask, lengths, missing)) {
      const wrong = () => fail('I6', (missing ?? node).at, node);
      inspect(node.rows, [mask, lengths, missing].map((b) => b?.elements), (row) => parent.isValid(row) &&
        node.isMissing(row) !== (lengths.elements.u64(row) <= BigInt(node.ordinal)) && wrong);
    }
  }

  /** I8, I9 of a list */
  checkLengths() {
    const { node, validity } = this;
    const lengths = node.buffer(ROLE.lengths);
    const wrong = (row) => () => fail('I8', lengths.elements.place(row), node);
    if (validity && this.can(validity, lengths))
      inspect(node.rows, [validity.elements, lengths.elements],
        (row) => !node.isValid(row) && lengths.elements.u64(row) !== 0n && wrong(row));
    const most = BigInt(node.children.length);
    if (this.can(lengths))
      inspect(node.rows, [lengths.elements],
        (row) => lengths.elements.u64(row) > most && (() => fail('I9', lengths.elements.place(row), node)));
  }

  checkLeaf() {
    const { node, leaf } = this;
    const ragged = node.codec === RAGGED_TENSOR || node.codec === TYPED_RAGGED;
    if (this.offsets) this.checkOffsets(leaf.offsets, node.buffer(ROLE.data).countExact);
    if (leaf.itemOffsets) this.checkOffsets(leaf.itemOffsets, BigInt(leaf.offsets.count - 1));
    this.checkAbsent();
    if (ragged) this.checkDimensions();
    if (ragged) this.checkProducts();
    if (leaf.types) this.checkTypes();
    if (leaf.rowIndex) this.checkRowIndex();
    if (leaf.prefixRow) this.checkPrefixes();
  }

  /** I7 */
  checkOffsets(offsets, end) {
    if (!this.can(offsets.buffer)) return;
    const last = offsets.count - 1;
    inspect(offsets.count, [offsets], (i) => {
      const element = offsets.u64(i);
      const wrong = (i === 0 ? element !== 0n : element < offsets.u64(i - 1)) || (i === last && element !== end);
      return wrong && (() => fail('I7', offsets.place(i), this.node));
    });
  }

  /** I8 */
  checkAbsent() {
    const { node, leaf, validity } = this;
    const offsets = leaf.rowOffsets;
    if (!offsets || !validity || leaf.rowIndex || !this.can(validity, offsets.buffer)) return;
    const wrong = (row) => () => fail('I8', offsets.place(row + 1), node);
    inspect(leaf.storedRows, [validity.elements, pairs(offsets)],
      (row) => !node.isValid(row) && offsets.u64(row) !== offsets.u64(row + 1) && wrong(row));
  }

  /** I10: row by row, ndims, then the dims */
  checkDimensions() {
    const { node, leaf, validity } = this;
    const mask = leaf.rowIndex ? null : validity;
    if (!this.can(mask, this.ndims, ...this.shapes)) return;
    inspect(leaf.storedRows, [mask?.elements, leaf.ndims, ...leaf.dims], (row) => {
      const present = leaf.isPresent(row);
      const own = leaf.ndims ? leaf.ndims.u8(row) : present ? node.rank : 0;
      if (own > node.rank || (!present && own !== 0)) return () => fail('I10', leaf.ndims.place(row), node);
      const dim = leaf.dims.findIndex((d, i) => i >= own && d.u64(row) !== 0n);
      return dim >= 0 && (() => fail('I10', leaf.dims[dim].place(row), node));
    });
  }

  /** I11 */
  checkProducts() {
    const { node, leaf, validity } = this;
    const mask = leaf.rowIndex ? null : validity;
    if ((node.rank === 1 && !leaf.ndims) || !this.can(mask, this.offsets, this.ndims, ...this.shapes)) return;
    inspect(leaf.storedRows, [mask?.elements, pairs(leaf.offsets), leaf.ndims, ...leaf.dims], (row) => {
      if (!leaf.isPresent(row)) return null;
      const wrong = product(leaf.shapeOf(row)) !== leaf.offsets.u64(row + 1) - leaf.offsets.u64(row);
      return wrong && (() => fail('I11', leaf.offsets.place(row + 1), node));
    });
  }

  /** I12 */
  checkTypes() {
    const { node, leaf, validity } = this;
    const items = node.codec === MEDIA_LIST;
    const mask = leaf.rowIndex || items ? null : validity;
    if (!this.can(mask, this.types)) return;
    inspect(leaf.types.count, [mask?.elements, leaf.types], (row) => {
      const type = leaf.types.u8(row);
      const allowed = items || leaf.isPresent(row) ? typeAllowed(node, type) : type === 0;
      return !allowed && (() => fail('I12', leaf.types.place(row), node));
    });
  }

  /** I13 */
  checkRowIndex() {
    const { node, leaf, validity } = this;
    if (!this.can(validity, this.rowIndex)) return;
    inspect(node.rows, [validity?.elements, leaf.rowIndex], (row) => {
      const reference = leaf.rowIndex.u64(row);
      const wrong = node.isValid(row) ? reference >= BigInt(leaf.storedRows) : reference !== 0n;
      return wrong && (() => fail('I13', leaf.rowIndex.place(row), node));
    });
  }

  /** I14. A leader is any row, so that rows are passed over only where the buffers are one line from end to end. */
  checkPrefixes() {
    const { node, leaf, validity } = this;
    const mask = leaf.rowIndex ? null : validity;
    const { prefixRow, prefixLength, offsets, storedRows } = leaf;
    if (!this.can(mask, prefixRow.buffer, prefixLength.buffer, offsets.buffer)) return;
    const all = [mask?.elements, prefixRow, prefixLength, pairs(offsets)].filter((b) => b);
    const lines = all.every((b) => b.stretch(0) >= storedRows);
    inspect(storedRows, lines ? all : [{ isLiteral: true, stretch: (row) => row + 1 }], (row) => {
      const [leader, length] = [prefixRow.u64(row), prefixLength.u64(row)];
      const wrongRow = () => fail('I14', prefixRow.place(row), node);
      const wrongLength = () => fail('I14', prefixLength.place(row), node);
      if (length === 0n) return leader !== 0n && wrongRow;
      if (!leaf.isPresent(row)) return wrongLength;
      if (leader >= BigInt(storedRows) || prefixLength.u64(Number(leader)) !== 0n) return wrongRow;
      return offsets.u64(Number(leader) + 1) - offsets.u64(Number(leader)) < length && wrongLength;
    });
  }
}

/** Whether a leaf may have this type in its types buffer (section 9). */
function typeAllowed(node, type) {
  const [number, form] = [type & 15, type >> 4];
  if (form !== 0 && !formsOf(node).includes(form)) return false;
  if (number === 0) return true;
  if (!node.dtype.name) return false;
  const shown = form || node.form;
  if (shown !== NATURAL && shown !== LIST) return false;
  const { code } = node.dtype;
  return number === 1 ? code <= 2 : number === 2 && code === 2;
}

/** D9 and rules D3 to D8 of one node. */
class DataChecks {
  constructor(node, walked) {
    this.node = node;
    this.walked = walked;
    this.leaf = node.leaf;
    this.data = node.buffer(ROLE.data);
  }

  run() {
    const { node, leaf, data, walked } = this;
    for (const b of node.buffers) {
      checkSize(b);
      if (b.isData) walked.charge(b);
    }
    if (!node.isLeaf || !node.isKnown || node.buffers.some((b) => !b.isKnownRole) || !data) return;
    if (!data.isReadable) return;
    const numbers = node.codec <= TYPED_RAGGED;
    if (numbers && !node.dtype.name) return;
    if (node.dtype.name === 'bool' && !data.isComputed) this.checkBools();
    if (node.codec === NDARRAY && !leaf.rowIndex) this.checkAbsent();
    if (numbers && leaf.types) this.checkExact();
    if (node.codec >= UTF8 && node.codec <= MSGPACK) this.checkCells();
  }

  /** The masks and index buffers that a rule of the data needs. */
  can(...roles) {
    return roles.every((role) => this.node.buffer(role)?.isReadable ?? true);
  }

  /** D3 */
  checkBools() {
    const { node } = this;
    this.leaf.data.eachWindow((bytes, from) => {
      const wrong = firstWrongNumber(bytes, node.dtype, 0);
      if (wrong >= 0) fail('D3', this.leaf.data.place(from + wrong), node);
    });
  }

  /** D4 */
  checkAbsent() {
    const { node, leaf, data } = this;
    const validity = node.buffer(ROLE.validity);
    const size = Number(leaf.product);
    if (!validity || size === 0 || !this.can(ROLE.validity)) return;
    // of a computed buffer a cell of more elements than two is wrong in its first two, if at all
    const looked = data.isComputed ? Math.min(size, 2) : size;
    inspect(node.rows, [validity.elements, leaf.data.asRows()], (row) => {
      if (node.isValid(row)) return null;
      const wrong = leaf.data.firstNotZero(row * size, row * size + looked);
      return wrong && (() => fail('D4', leaf.data.place(...wrong), node));
    });
  }

  /** D5 */
  checkExact() {
    const { node, leaf, data } = this;
    const validity = leaf.rowIndex ? null : node.buffer(ROLE.validity);
    const offsets = leaf.offsets;
    if (!this.can(ROLE.types, ROLE.offsets, ROLE.prefix_row, ROLE.prefix_length)) return;
    if (validity && !this.can(ROLE.validity)) return;
    const looked = (row) => (leaf.types.u8(row) & 15 ? row + 1 : leaf.types.stretch(row));
    const elements = data.isComputed ? leaf.data.asRows() : { stretch: looked };
    inspect(leaf.types.count, [leaf.types, pairs(offsets), elements], (row) => {
      const type = leaf.types.u8(row) & 15;
      if (type === 0) return null;
      for (let [[from, to]] = leaf.piecesOf(row); from < to;) {
        const count = data.isComputed ? 3n : 1024n; // of a sequence no more than two neighbours are 0 or 1
        const end = from + count < to ? from + count : to;
        const wrong = firstWrongNumber(leaf.data.bytes(Number(from), Number(end)), node.dtype, type);
        if (wrong >= 0) {
          const at = Number(from) + wrong / node.dtype.bytes;
          return () => fail('D5', leaf.data.place(at), node);
        }
        if (data.isComputed) break;
        from = end;
      }
      return null;
    });
  }

  /** D6, D7, D8: each cell of text, JSON and MessagePack */
  checkCells() {
    const { node, leaf, data } = this;
    const validity = leaf.rowIndex ? null : node.buffer(ROLE.validity);
    if (!this.can(ROLE.offsets) || (validity && !this.can(ROLE.validity))) return;
    const { offsets } = leaf;
    // cells without a byte are all the same, and so are those of a constant that are of one length
    const empty = (row) => offsets.u64(row) === offsets.u64(row + 1);
    const cells = { stretch: (row) => (data.isComputed ? Infinity : empty(row) ? offsets.stretch(row) : row + 1) };
    inspect(leaf.storedRows, [validity?.elements, pairs(offsets), cells], (row) => {
      if (!leaf.isPresent(row)) return null;
      try {
        this.checkCell(offsets.number(row), offsets.number(row + 1));
        return null;
      } catch (error) {
        if (!(error instanceof PackbufError)) throw error;
        return () => { throw error; };
      }
    });
  }

  checkCell(from, to) {
    const { node, leaf, data } = this;
    const { limits } = node.packed;
    const place = (i) => leaf.data.place(from + i);
    if (node.codec !== UTF8 && to - from > limits.cell_bytes) fail('D9', leaf.data.place(from), node);
    // all bytes of a constant are the same: what its first bytes do not break, no more of them do
    const bytes = leaf.data.bytes(from, data.isComputed ? Math.min(to, from + 2 ** 17) : to);
    if (node.codec === UTF8) {
      const wrong = wrongUtf8(bytes);
      if (wrong >= 0) fail('D6', place(wrong), node);
    } else if (node.codec === JSON_RAGGED)
      withCell(node, 'D7', bytes, place, () => new JsonCell(bytes, limits, null, node).read());
    else withCell(node, 'D8', bytes, place, () => new MsgpackCell(bytes, limits, null, node).read());
  }
}

/** Rules I of the whole: I1, I2, I15 to I17, then I3 to I14 node by node. */
function verifyIndex(packed, walked) {
  const { header, nodes, buffers } = packed;
  const [from, to] = [header.head_length, header.head_length + header.index_length];
  let crc = 0;
  for (let at = from; at < to; at += CHUNK) crc = crc32c(packed.bytes(at, Math.min(CHUNK, to - at)), crc);
  if (crc !== header.index_checksum) fail('I1', 56);
  checkPadding(packed, 'I2', 'index');
  for (const b of buffers)
    if (b.isStored && b.isBlocks) {
      b.elements.checkHeaders();
      if (!b.isData) b.elements.checkPayloads('I17');
    }
  for (const node of nodes) new IndexChecks(node, walked).run();
}

/** Rules D of the whole. */
function verifyData(packed, walked) {
  const { header, nodes, buffers } = packed;
  const index = header.head_length + header.index_length;
  if (header.checksums)
    for (let at = index, i = 0; at < header.total_length; at += CHUNK, i++) {
      const sum = viewOf(packed.bytes(header.head_length + 4 * i, 4)).getUint32(0, true);
      if (crc32c(packed.bytes(at, Math.min(CHUNK, header.total_length - at))) !== sum) fail('D1', at);
    }
  checkPadding(packed, 'D2', 'data');
  for (const b of buffers) if (b.isStored && b.isBlocks && b.isData) b.elements.checkPayloads('D10');
  for (const node of nodes) new DataChecks(node, walked).run();
}

/** I2, D2 */
function checkPadding(packed, rule, part) {
  for (const range of layoutOf(packed)) {
    if (range.part !== part || range.what !== 'padding') continue;
    for (let at = range.from; at < range.to; at += CHUNK) {
      const wrong = firstNot(packed.bytes(at, Math.min(CHUNK, range.to - at)), 0);
      if (wrong >= 0) fail(rule, at + wrong);
    }
  }
}

// ---- 14. Errors ----

/** The errors with their numbers: the table of section 14. */
export const ERRORS = {
  OK: 0, INVALID_ARGUMENT: 1, OUT_OF_MEMORY: 2, NOT_FOUND: 3, OUT_OF_RANGE: 4, WRONG_TYPE: 5, UNALIGNED: 6,
  NOT_STORED: 7, ROW_COUNT: 8, READ_ONLY: 9, SCHEMA_MISMATCH: 10, FRAGMENT_MISMATCH: 11, ROW_ORDER: 12,
  NOT_FETCHED: 13, CAPACITY: 20, BAD_MAGIC: 40, TRUNCATED: 41, TRAILING_BYTES: 42, BAD_HEADER: 43, HEAD_CHECKSUM: 44,
  INDEX_CHECKSUM: 45, DATA_CHECKSUM: 46, NOT_ZERO: 47, BAD_LAYOUT: 48, BAD_NODE: 49, BAD_BUFFER: 50,
  BAD_METADATA: 51, BAD_NAME: 52, DUPLICATE_NAME: 53, BAD_UTF8: 54, BAD_MASK: 55, BAD_OFFSETS: 56, BAD_SHAPE: 57,
  BAD_TYPES: 58, BAD_BOOL: 59, BAD_JSON: 60, BAD_MSGPACK: 61, BAD_REFERENCE: 62, BAD_MANIFEST: 63, BAD_BLOCK: 64,
  LIMIT: 80, DEPTH: 81, UNSUPPORTED_VERSION: 100, UNSUPPORTED_FEATURE: 101, UNSUPPORTED_KIND: 102,
  UNSUPPORTED_CODEC: 103, UNSUPPORTED_PACKING: 104, UNSUPPORTED_DTYPE: 105, UNSUPPORTED_ROLE: 106,
  UNSUPPORTED_DEVICE: 107, UNSUPPORTED_OPERATION: 108, UNENCODABLE: 120, LOSSY: 121, NOT_NULLABLE: 122, TIMEOUT: 140,
  CANCELLED: 141, STALE: 142, FULL: 143, QUOTA: 144, LEASED: 145, UNAVAILABLE: 146, DISCONNECTED: 147, DENIED: 148,
  UNREGISTERED: 149, SHORT_READ: 150, PROTOCOL: 151, SYSTEM: 152,
};

/** What a packed buffer is refused with, or a call. */
export class PackbufError extends Error {
  /**
   * @param {string} error
   * @param {{ rule?: string, offset?: number, path?: string, row?: number, fragment?: number }} [where]
   */
  constructor(error, { rule = '', offset = -1, path = '', row = -1, fragment = -1 } = {}) {
    const holds = rule ? RULES.get(rule).holds : '';
    const numbers = [['at', offset], ['row', row], ['fragment', fragment]];
    const places = numbers.map(([name, n]) => (n >= 0 ? `${name} ${n}` : ''));
    const where = [places[0], path && `in ${path}`, ...places.slice(1)];
    super([rule, error, ...where, holds && `(must hold: ${holds})`].filter((part) => part).join(' '));
    this.name = 'PackbufError';
    /** @type {string} the error's name, and its number */
    this.error = error;
    this.number = ERRORS[error];
    /** The rule that is broken, and where; '' and -1 where there is none. */
    this.rule = rule;
    this.offset = offset;
    this.path = path;
    this.row = row;
    this.fragment = fragment;
    /** What the rule says. */
    this.holds = holds;
  }
}

// ---- 15. Limits ----

export const LIMITS = {
  head_bytes: 2 ** 30,
  nodes: 2 ** 20,
  buffers: 2 ** 22,
  metadata: 2 ** 16,
  rows: 2 ** 48,
  depth: 64,
  decoded_bytes: 2 ** 40,
  cell_depth: 512,
  cell_bytes: 2 ** 30,
  /** This reader's own: bytes of one array, or of all values of one call (a value counts 32 and its bytes). */
  result_bytes: 2 ** 30,
};

/** All limits, of which a caller may set some. */
function limitsOf(limits) {
  const all = Object.entries({ ...LIMITS, ...limits });
  return Object.fromEntries(all.map(([name, limit]) => [name, Math.min(limit, Number.MAX_SAFE_INTEGER - 1)]));
}

// ---- 16. Equality ----

/** Whether two values are equal as section 16 says. */
export function equal(a, b) {
  if (a === null || b === null || typeof a !== 'object' || typeof b !== 'object') return Object.is(a, b);
  if (a.constructor !== b.constructor) return isDict(a) && isDict(b) && a.size === 0 && b.size === 0;
  if (a instanceof Uint8Array) return compareBytes(a, b) === 0;
  if (Array.isArray(a)) return a.length === b.length && a.every((item, i) => equal(item, b[i]));
  if (a instanceof Map)
    return a.size === b.size && [...a].every(([key, value]) => b.has(key) && equal(value, b.get(key)));
  if (a instanceof Pairs)
    return a.pairs.length === b.pairs.length && a.pairs.every(([key, value]) => equal(value, b.get(key)));
  const names = new Set([...Object.keys(a), ...Object.keys(b)]); // Tensor, Media, Opaque, NanBits, Unreadable
  return [...names].every((name) => equal(a[name], b[name]));
}

const isDict = (value) => value instanceof Map || value instanceof Pairs;

// ---- 20. Packing in blocks: the elements of a buffer, however they are stored ----

const MODE = { plain: 0, line: 1, frame: 2, zero: 3, split: 4, dictionary: 5 };
const ROW = 128; // bytes

const UNIT_CODES = [0, 1, 2, 4, 6, 10, 12]; // also with bits that section 8 does not list
/** Bits of a unit of what may be packed in blocks, or 0. */
function unitBits(b) {
  const { code, bits, lanes } = b.dtype;
  if (b.dtype.is(1, 1, 1)) return 8;
  return UNIT_CODES.includes(code) && [8, 16, 32, 64].includes(bits) && lanes === 1 ? bits : 0;
}

/**
 * The elements of a buffer of known dtype and packing, by place. They are looked at through windows of 8 KiB, which are
 * the blocks.
 */
class Elements {
  /** @param {TypedBuffer} buffer */
  constructor(buffer) {
    this.buffer = buffer;
    this.packed = buffer.packed;
    /** Elements, of at least a byte; a bitmap's are bits, and its units the bytes that hold them. */
    this.count = buffer.count;
    this.size = buffer.dtype.size === 1 ? 1 : buffer.dtype.bytes;
    this.units = buffer.dtype.size === 1 ? Math.ceil(buffer.count / 8) : buffer.count;
    this.perWindow = Math.floor(BLOCK / this.size);
    this.isLiteral = !buffer.isComputed && !buffer.isBlocks;
    this.windows = new Map();
    this.current = -1;
    this.view = null;
    this.blocks = buffer.isBlocks ? new Blocks(buffer, this.units) : null;
  }

  /** Elements that lie in the packed buffer in one run. */
  get isInPlace() {
    return this.isLiteral;
  }

  checkHeaders() {
    this.blocks.checkHeaders();
  }

  checkPayloads(rule) {
    this.blocks.checkPayloads(rule);
  }

  /** The bytes of window w. */
  window(w) {
    const { windows } = this;
    let bytes = windows.get(w);
    if (!bytes) {
      bytes = this.makeWindow(w);
      if (windows.size >= 32) windows.delete(windows.keys().next().value);
      windows.set(w, bytes);
    }
    return bytes;
  }

  makeWindow(w) {
    const { buffer, size } = this;
    const from = w * this.perWindow;
    const units = Math.min(this.perWindow, this.units - from);
    if (this.blocks) return this.blocks.unpack(w);
    if (this.isLiteral) return this.bytes(from, from + units);
    if (buffer.storage === STORAGE.constant) {
      const bytes = new Uint8Array(units * size);
      const byte = buffer.dtype.size === 1 && buffer.value[0] === 1 ? 0xFF : buffer.value[0];
      if (size === 1) bytes.fill(byte);
      else for (let i = 0; i < bytes.length; i += size) bytes.set(buffer.value.subarray(0, size), i);
      return bytes;
    }
    const sequence = new BigUint64Array(units);
    for (let i = 0; i < units; i++) sequence[i] = BigInt.asUintN(64, buffer.start + BigInt(from + i) * buffer.step);
    return untyped(sequence);
  }

  /** Makes the window of a unit the current one; returns its place there, in bytes. */
  seek(unit) {
    const w = Math.floor(unit / this.perWindow);
    if (w !== this.current) {
      this.view = viewOf(this.window(w));
      this.current = w;
    }
    return (unit - w * this.perWindow) * this.size;
  }

  u64(i) {
    const at = this.seek(i);
    return this.view.getBigUint64(at, true);
  }

  /** A u64 that was held against what is there. */
  number(i) {
    return Number(this.u64(i));
  }

  u8(i) {
    const at = this.seek(i);
    return this.view.getUint8(at);
  }

  /** Byte i of a bitmap. */
  byte(i) {
    return this.u8(i);
  }

  bit(i) {
    return this.u8(Math.floor(i / 8)) >> i % 8 & 1;
  }

  /** The elements [from, to) as bytes: a view where they lie in memory, else a copy. Not of bitmaps, but by units. */
  bytes(from, to) {
    const { buffer, size } = this;
    const length = (to - from) * size;
    if (buffer.storage === STORAGE.inline) return buffer.value.subarray(from * size, from * size + length);
    if (this.isLiteral) return this.packed.bytes(buffer.offset + from * size, length);
    const bytes = allocate(length, buffer);
    for (let unit = from; unit < to;) {
      const w = Math.floor(unit / this.perWindow);
      const first = w * this.perWindow;
      const end = Math.min(to, first + this.perWindow);
      bytes.set(this.window(w).subarray((unit - first) * size, (end - first) * size), (unit - from) * size);
      unit = end;
    }
    return bytes;
  }

  /** All windows in order, with the first element of each. */
  eachWindow(look) {
    for (let from = 0; from < this.units; from += this.perWindow) look(this.window(from / this.perWindow), from);
  }

  /** The first byte that is not zero among elements [from, to): [element, byte], or null. */
  firstNotZero(from, to) {
    for (let unit = from; unit < to;) {
      const end = Math.min(to, unit + this.perWindow);
      const wrong = firstNot(this.bytes(unit, end), 0);
      if (wrong >= 0) return [unit + Math.floor(wrong / this.size), wrong % this.size];
      unit = end;
    }
    return null;
  }

  /** How far the elements from i on are one line: all the same, or of 64 bits and one step. */
  stretch(i) {
    if (this.buffer.isComputed) return this.count;
    return this.blocks ? this.blocks.stretch(i, this.buffer.dtype.size === 1) : i + 1;
  }

  /** The same as rows see it, of some elements each: those of a computed buffer all follow one line. */
  asRows() {
    return { isLiteral: this.isLiteral, stretch: (row) => (this.buffer.isComputed ? Infinity : row + 1) };
  }

  /** Where a byte of an element lies ("at" of section 13). */
  place(i, byte = 0) {
    const { buffer } = this;
    if (buffer.isComputed) return buffer.at + 40 + byte;
    if (this.blocks) return buffer.headers_offset + 16 * Math.floor(i / this.perWindow);
    return (buffer.storage === STORAGE.inline ? buffer.at + 40 : buffer.offset) + i * this.size + byte;
  }

  /** The same for a byte of a bitmap. */
  bytePlace(i) {
    return this.place(i);
  }
}

/** What JavaScript itself cannot hold (a string, an array, a stack) is memory that is not there. */
function withinMemory(make) {
  try {
    return make();
  } catch (error) {
    throw error instanceof RangeError ? new PackbufError('OUT_OF_MEMORY') : error;
  }
}

/** Memory, as far as there is some. */
function allocate(length, b) {
  if (length > b.packed.limits.result_bytes) fail('D9', b.at + 16, b.node);
  try {
    return new Uint8Array(length);
  } catch {
    throw new PackbufError('OUT_OF_MEMORY', { path: b.node.path });
  }
}

Object.defineProperty(TypedBuffer.prototype, 'elements', {
  get() {
    Object.defineProperty(this, 'elements', { value: new Elements(this) });
    return this.elements;
  },
});

Object.assign(TypedBuffer.prototype, {
  /** All elements as bytes: a view where they lie in memory, else a copy. A bitmap's are eight to a byte. */
  bytes() {
    if (!this.isReadable) throw new PackbufError('UNSUPPORTED_PACKING', { path: this.node.path });
    const known = this.dtype.name || this.dtype.is(1, 1, 1);
    if (!known) throw new PackbufError('UNSUPPORTED_DTYPE', { path: this.node.path });
    const limit = BigInt(this.packed.limits.decoded_bytes);
    if (this.rawLength > limit || this.rawLength > NUMBER_END) fail('D9', this.at + 16, this.node);
    if (this.isBlocks) this.elements.checkHeaders();
    return this.elements.bytes(0, this.elements.units);
  },

  /**
   * All elements as a typed array: a view where alignment and the machine allow. Small floats as their bits, complex as
   * pairs.
   */
  array() {
    return typed(this.bytes(), ARRAYS[this.dtype.name] ?? Uint8Array);
  },
});

/** The blocks of a buffer. */
class Blocks {
  constructor(buffer, units) {
    this.buffer = buffer;
    this.packed = buffer.packed;
    this.bits = unitBits(buffer); // T
    this.units = units; // n
    this.perBlock = BLOCK * 8 / this.bits; // B
    this.perRow = ROW * 8 / this.bits; // L
    this.count = Math.ceil(units / this.perBlock);
    this.sound = false;
    this.lines = new Map();
  }

  /** Block k: its header, units and where its payload lies. */
  header(k) {
    const { buffer } = this;
    const last = k + 1 === this.count;
    const bytes = this.packed.bytes(buffer.headers_offset + 16 * k, last ? 16 : 32);
    const view = viewOf(bytes);
    const units = Math.min(this.perBlock, this.units - k * this.perBlock);
    return {
      at: buffer.headers_offset + 16 * k, units, rows: Math.ceil(units / this.perRow),
      base: view.getBigUint64(0, true), mode: bytes[12] & 127, filled: bytes[12] > 127,
      width: bytes[13], shift: bytes[14], extra: bytes[15],
      from: 64 * view.getUint32(8, true), to: last ? buffer.length : 64 * view.getUint32(24, true),
    };
  }

  /** I15 and I16, block by block */
  checkHeaders() {
    if (this.sound) return;
    const { buffer } = this;
    for (let k = 0; k < this.count; k++) {
      const header = this.header(k);
      const wrong = this.wrongField(header);
      if (wrong !== null) fail('I15', header.at + wrong, buffer.node);
      if (k === 0 && header.from !== 0) fail('I16', header.at + 8, buffer.node);
      const size = this.payloadSize(header);
      const within = header.to >= header.from && header.to <= buffer.length;
      const ends = within && (size === null || header.to - header.from === size);
      if (!ends) fail('I16', k + 1 === this.count ? buffer.at + 32 : header.at + 24, buffer.node);
    }
    this.sound = true;
  }

  /** I15: the first field of a header that is wrong, as a place in it, or null. */
  wrongField({ base, mode, filled, width, shift, extra }) {
    const T = this.bits;
    if (mode > MODE.dictionary || (mode === MODE.line && filled)) return 12;
    if (mode === MODE.dictionary && T !== 16 && T !== 32) return 12;
    const noBase = mode === MODE.plain || mode === MODE.split || mode === MODE.dictionary;
    if (noBase ? base !== 0n : base >> BigInt(T) !== 0n) return 0;
    const piece = (n) => [0, 1, 2, 4, 8].includes(n) && n <= T / 8;
    switch (mode) {
      case MODE.plain: return width !== 0 ? 13 : shift !== 0 ? 14 : extra !== 0 ? 15 : null;
      case MODE.line:
        if (extra > 0 && shift >> 4 !== 0 && width !== 0) return 13;
        if (extra === 0 ? shift !== 0 : !piece(shift & 15) || !piece(shift >> 4)) return 14;
        return extra > 64 ? 15 : null;
      case MODE.frame: return width < 1 || width > T ? 13 : shift > T - width ? 14 : extra !== 0 ? 15 : null;
      case MODE.zero: return width < 1 || width > T ? 13 : shift !== 0 ? 14 : extra !== 0 ? 15 : null;
      case MODE.split: return width < 1 || width > T - 8 ? 13 : shift !== 0 ? 14 : extra !== 0 ? 15 : null;
      default:
        if (width !== Math.max(1, shift + bitsOf(extra)) || width > T) return 13;
        return shift >= T || T - shift > 16 ? 14 : extra > 31 ? 15 : null;
    }
  }

  /** Bytes of the payload of a block, where its header tells; of rows rows, where they are dense. */
  payloadSize({ mode, filled, units, rows, width, shift, extra }) {
    if (filled || mode === MODE.split) return null;
    if (mode === MODE.line) return roundUp(extra * (2 + (shift & 15) + (shift >> 4)), 64);
    return mode === MODE.plain ? roundUp(units * this.bits / 8, 64) : this.rowsSize(mode, rows, width);
  }

  /** The same of whole rows. */
  rowsSize(mode, rows, width) {
    if (mode === MODE.plain) return rows * ROW;
    return this.codesSize(rows, width) + (mode === MODE.dictionary ? 64 : 0);
  }

  codesSize(rows, width) {
    return ROW * Math.ceil(rows * width / this.bits);
  }

  /** I17, D10 */
  checkPayloads(rule) {
    for (let k = 0; k < this.count; k++) this.open(k, rule);
  }

  /** A block with its payload, which is what its mode says. */
  open(k, rule = this.buffer.isData ? 'D10' : 'I17') {
    const block = this.header(k);
    const { buffer } = this;
    const start = buffer.offset + block.from;
    const payload = this.packed.bytes(start, block.to - block.from);
    block.payload = payload;
    block.dense = null;
    if (!this.openPayload(block)) fail(rule, start, buffer.node);
    return block;
  }

  /** What a payload is beyond its size; false where it is not what it should be. */
  openPayload(block) {
    if (block.filled && !this.openFilled(block)) return false;
    switch (block.mode) {
      case MODE.line: return block.extra === 0 || this.openLines(block);
      case MODE.plain: return block.filled || isZero(block.payload.subarray(block.units * this.bits / 8));
      case MODE.split: return this.openSplit(block);
      case MODE.dictionary: return this.openTops(block);
      default: return true;
    }
  }

  /** The 64 bytes before the dense rows. */
  openFilled(block) {
    const { payload, rows, mode, width } = block;
    if (payload.length < 64) return false;
    const mask = viewOf(payload).getBigUint64(0, true);
    if (mask === 0n || mask >> BigInt(rows) !== 0n || !isZero(payload.subarray(8 + this.bits / 8, 64))) return false;
    block.dense = [];
    for (let row = 0; row < rows; row++) if (mask >> BigInt(row) & 1n) block.dense.push(row);
    block.fill = payload.slice(8, 8 + this.bits / 8);
    block.payload = payload.subarray(64);
    block.rows = block.dense.length;
    return mode === MODE.split || block.payload.length === this.rowsSize(mode, block.rows, width);
  }

  /** The lines of a block: where each begins, its value and its step. */
  openLines(block) {
    const { payload, extra, shift } = block;
    const [v, s] = [shift & 15, shift >> 4];
    const signed = (at, size) => BigInt.asIntN(8 * size, unsigned(at, size));
    const unsigned = (at, size) => {
      let value = 0n;
      for (let i = size - 1; i >= 0; i--) value = value << 8n | BigInt(payload[at + i]);
      return value;
    };
    block.lines = [];
    for (let i = 0; i < extra; i++) {
      const first = payload[2 * i] | payload[2 * i + 1] << 8;
      if (i === 0 ? first !== 0 : first <= block.lines[i - 1].first || first >= block.units) return false;
      const value = BigInt.asUintN(this.bits, block.base + unsigned(2 * extra + v * i, v));
      const step = s === 0 ? BigInt.asIntN(8, BigInt(block.width)) : signed((2 + v) * extra + s * i, s);
      block.lines.push({ first, value, step });
    }
    return isZero(payload.subarray((2 + v + s) * extra));
  }

  openSplit(block) {
    const { payload, rows, width } = block;
    const codes = this.codesSize(rows, width);
    const bits = rows * this.perRow / 8;
    const map = roundUp(bits, 64);
    if (payload.length < codes + map || !isZero(payload.subarray(codes + bits, codes + map))) return false;
    block.bitmap = payload.subarray(codes, codes + bits);
    block.bytes = payload.subarray(codes + map);
    const count = block.bitmap.reduce((sum, byte) => sum + BITS_SET[byte], 0);
    return block.bytes.length === roundUp(count, 64) && isZero(block.bytes.subarray(count));
  }

  openTops(block) {
    const { payload, extra, shift } = block;
    const tops = typed(payload.subarray(0, 64), Uint16Array);
    for (let i = 0; i <= extra; i++)
      if ((i > 0 && tops[i] <= tops[i - 1]) || tops[i] >= 2 ** (this.bits - shift)) return false;
    block.tops = tops;
    block.payload = payload.subarray(64);
    return tops.subarray(extra + 1).every((top) => top === 0);
  }

  /** The units of block k, as bytes. */
  unpack(k) {
    this.checkHeaders();
    const block = this.open(k);
    const bytes = untyped(block.mode === MODE.line ? this.lineUnits(block) : this.rowUnits(block));
    const length = block.units * this.bits / 8;
    if (!block.dense) return bytes.subarray(0, length);
    const all = new Uint8Array(Math.ceil(length / ROW) * ROW);
    for (let i = 0; i < all.length; i += block.fill.length) all.set(block.fill, i);
    block.dense.forEach((row, rank) => all.set(bytes.subarray(rank * ROW, (rank + 1) * ROW), row * ROW));
    return all.subarray(0, length);
  }

  /** The lines of a block, as openLines leaves them. */
  linesOf(block) {
    return block.lines ?? [{ first: 0, value: block.base, step: BigInt.asIntN(8, BigInt(block.width)) }];
  }

  lineUnits(block) {
    const T = this.bits;
    const units = new UNSIGNED[T](block.units);
    const lines = this.linesOf(block);
    lines.forEach(({ first, value, step }, i) => {
      const end = lines[i + 1]?.first ?? block.units;
      const one = T === 64 ? (x) => x : Number;
      for (let unit = first; unit < end; unit++, value = BigInt.asUintN(T, value + step)) {
        units[unit] = one(value);
        if (step === 0n) {
          units.fill(one(value), unit, end);
          break;
        }
      }
    });
    return units;
  }

  /** Units of whole rows, of any mode but line; those of 64 bits as pairs of 32, the low ones first. */
  rowUnits(block) {
    const { mode, payload, rows } = block;
    const n = rows * this.perRow;
    if (mode === MODE.plain) {
      const whole = new Uint8Array(rows * ROW);
      whole.set(payload.subarray(0, whole.length));
      return whole;
    }
    if (this.bits === 64) return wideUnits(block, wideCodes(typed(payload, Uint32Array), rows, block.width), n);
    const codes = narrowCodes(typed(payload, UNSIGNED[this.bits]), this.bits, rows, block.width);
    return new UNSIGNED[this.bits](narrowUnits(block, codes, this.bits));
  }

  /** How far the elements from i on are one line that does not wrap; of a bitmap, all the same bit. */
  stretch(i, bitmap) {
    const unit = bitmap ? Math.floor(i / 8) : i;
    const k = Math.floor(unit / this.perBlock);
    let block = this.lines.get(k);
    if (block === undefined) {
      this.checkHeaders();
      block = this.header(k).mode === MODE.line ? this.open(k) : null;
      this.lines.clear(); // they are asked for in order
      this.lines.set(k, block);
    }
    if (!block) return i + 1;
    const lines = this.linesOf(block);
    const at = unit - k * this.perBlock;
    let line = lines.length - 1;
    while (lines[line].first > at) line--;
    const { first, value, step } = lines[line];
    const end = lines[line + 1]?.first ?? block.units;
    const last = value + BigInt(end - 1 - first) * step;
    const straight = bitmap ? step === 0n && (value === 0n || value === 0xFFn)
      : step === 0n || (this.bits === 64 && last >= 0n && last < 1n << 64n);
    if (!straight) return i + 1;
    return Math.min(this.buffer.count, (k * this.perBlock + end) * (bitmap ? 8 : 1));
  }
}

const UNSIGNED = { 8: Uint8Array, 16: Uint16Array, 32: Uint32Array, 64: BigUint64Array };
const BITS_SET = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replace(/0/g, '').length);
const bitsOf = (n) => 32 - Math.clz32(n);

/** The codes of rows of units of T = 8, 16 or 32 bits: lane l holds those of units l, L + l, ... */
function narrowCodes(words, T, rows, width) {
  const L = 1024 / T;
  const codes = new Uint32Array(rows * L);
  const mask = width === 32 ? -1 : (1 << width) - 1;
  for (let row = 0; row < rows; row++) {
    const bit = row * width;
    const word = Math.floor(bit / T) * L;
    const shift = bit % T;
    if (shift + width <= T)
      for (let lane = 0; lane < L; lane++) codes[row * L + lane] = words[word + lane] >>> shift & mask;
    else
      for (let lane = 0; lane < L; lane++)
        codes[row * L + lane] = (words[word + lane] >>> shift | words[word + L + lane] << T - shift) & mask;
  }
  return codes;
}

/** Codes to units, in place; what passes T bits is cut when they are written. */
function narrowUnits({ mode, base, width, shift, tops, extra, bitmap, bytes }, codes, T) {
  const low = Number(base);
  switch (mode) {
    case MODE.frame:
      for (let i = 0; i < codes.length; i++) codes[i] = low + (codes[i] << shift >>> 0);
      break;
    case MODE.zero:
      for (let i = 0; i < codes.length; i++)
        codes[i] = codes[i] === 0 ? 0 : codes[i] === 1 ? 2 ** (T - 1) : low + codes[i] - 2;
      break;
    case MODE.split:
      for (let i = 0, next = 0; i < codes.length; i++)
        if (bitmap[i >> 3] >> (i & 7) & 1) codes[i] += bytes[next++] * 2 ** width;
      break;
    default: // dictionary
      for (let i = 0; i < codes.length; i++) {
        const code = shift === 0 ? codes[i] : codes[i] >>> shift;
        codes[i] = tops[code > extra ? 0 : code] * 2 ** shift + codes[i] % 2 ** shift;
      }
  }
  return codes;
}

/** The same for units of 64 bits, as pairs of 32. */
function wideCodes(words, rows, width) {
  const codes = new Uint32Array(rows * 32);
  const lowMask = width >= 32 ? -1 : (1 << width) - 1;
  const highMask = width === 64 ? -1 : width > 32 ? (1 << width - 32) - 1 : 0;
  for (let row = 0; row < rows; row++) {
    const bit = row * width;
    const word = Math.floor(bit / 64) * 32;
    const shift = bit % 64;
    for (let lane = 0; lane < 32; lane += 2) {
      let [low, high] = rightPair(words[word + lane], words[word + lane + 1], shift);
      if (shift + width > 64) {
        const more = leftPair(words[word + 32 + lane], words[word + 33 + lane], 64 - shift);
        low |= more[0];
        high |= more[1];
      }
      codes[row * 32 + lane] = low & lowMask;
      codes[row * 32 + lane + 1] = high & highMask;
    }
  }
  return codes;
}

function rightPair(low, high, shift) {
  if (shift === 0) return [low, high];
  return shift < 32 ? [low >>> shift | high << 32 - shift, high >>> shift] : [high >>> shift - 32, 0];
}

function leftPair(low, high, shift) {
  if (shift === 0) return [low, high];
  return shift < 32 ? [low << shift, high << shift | low >>> 32 - shift] : [0, low << shift - 32];
}

function wideUnits({ mode, base, width, shift, bitmap, bytes }, codes, n) {
  const start = mode === MODE.zero ? BigInt.asUintN(64, base - 2n) : base;
  const [baseLow, baseHigh] = [Number(start & 0xFFFFFFFFn), Number(start >> 32n)];
  let next = 0;
  for (let i = 0; i < n; i++) {
    let [low, high] = [codes[2 * i], codes[2 * i + 1]];
    if (mode === MODE.split) {
      if (!(bitmap[i >> 3] >> (i & 7) & 1)) continue;
      const top = leftPair(bytes[next++], 0, width);
      codes[2 * i] = low | top[0];
      codes[2 * i + 1] = high | top[1];
      continue;
    }
    if (mode === MODE.zero && high === 0 && low < 2) {
      codes[2 * i] = 0;
      codes[2 * i + 1] = low === 0 ? 0 : 0x80000000;
      continue;
    }
    [low, high] = leftPair(low, high, shift);
    const sum = (low >>> 0) + baseLow;
    codes[2 * i] = sum;
    codes[2 * i + 1] = (high >>> 0) + baseHigh + (sum > 0xFFFFFFFF ? 1 : 0);
  }
  return codes;
}

// ---- 22. Tagged JSON ----

const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Base64 of bytes. */
function base64(bytes) {
  const parts = [];
  for (let i = 0; i < bytes.length; i += 0x6000)
    parts.push(btoa(String.fromCharCode(...bytes.subarray(i, i + 0x6000))));
  return parts.join('');
}

/** A string as JSON text: only quotes, backslashes and control characters are escaped. */
const quoted = (text) => JSON.stringify(text);

/** The shortest digits that read back as the same float64, always with a point or an exponent. */
export function floatText(value) {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value < 0 ? '-Infinity' : 'Infinity';
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0';
  const [, sign, digits, exponentText] = /^(-?)([0-9.]+)e(.*)$/.exec(value.toExponential());
  const figures = digits.replace('.', '');
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const power = `${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`;
    return `${sign}${digits}e${power}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${figures}`;
  const whole = figures.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return `${sign}${whole}.${figures.slice(exponent + 1) || '0'}`;
}

/** A value as tagged JSON. */
export function taggedJson(value) {
  if (value === undefined) return '{"$missing":true}';
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value === 'number') return floatText(value);
  if (typeof value === 'string') return quoted(value);
  if (Array.isArray(value)) return `[${value.map(taggedJson).join(',')}]`;
  if (value instanceof Uint8Array) return `{"$bytes":"${base64(value)}"}`;
  if (value instanceof NanBits) return `{"$float":"${value.bits.toString(16).padStart(16, '0')}"}`;
  if (value instanceof Tensor) {
    const what = `"form":"${value.form}","dtype":"${value.dtype}","shape":[${value.shape}]`;
    return `{"$tensor":{${what},"data":"${base64(value.bytes)}"}}`;
  }
  if (value instanceof Media) {
    const names = ATTRIBUTES.filter((name) => value[name] !== undefined);
    const attributes = names.map((name) => `"${name}":${taggedJson(value[name])},`);
    return `{"$media":{${attributes.join('')}"data":"${base64(value.bytes)}"}}`;
  }
  if (value instanceof Opaque)
    return `{"$opaque":{"serializer":${quoted(value.serializer)},"data":"${base64(value.bytes)}"}}`;
  if (value instanceof Unreadable) return `{"$unreadable":"${value.error}"}`;
  const entries = value instanceof Pairs ? value.pairs : [...value];
  const plain = !(value instanceof Pairs) && !(entries.length === 1 && entries[0][0].startsWith('$'));
  if (plain) return `{${entries.map(([key, item]) => `${quoted(key)}:${taggedJson(item)}`).join(',')}}`;
  return `{"$dict":[${entries.map(([key, item]) => `[${taggedJson(key)},${taggedJson(item)}]`).join(',')}]}`;
}

// ---- 23. Fragments and manifests ----

const LISTED = { key: 'string', length: 'uint64', head_length: 'uint64', first_row: 'uint64', rows: 'uint64',
  head_checksum: 'uint32', appends: 'uint8' };

/** What the list asks of a fragment after so many rows: how many these are then, or null where it does not fit. */
function rowsWith({ length, head_length, first_row, rows, appends }, before) {
  const end = first_row + rows;
  if (head_length < 128n || head_length > length || end > MOST_ROWS) return null;
  if (appends === 'fields') return end <= before ? before : null;
  return appends === 'rows' && first_row === before ? end : null;
}

const MOST_ROWS = 1n << 48n;
const APPENDS = ['rows', 'fields'];
const LISTED_BYTES = 256; // what one fragment of the list takes here, but for its key

/** What a manifest lists, checked as far as the list alone tells. */
function fragmentsOf(packed) {
  const bad = (path, fragment) => { throw new PackbufError('BAD_MANIFEST', { path, fragment }); };
  if (packed.header.kind !== 2) throw new PackbufError('WRONG_TYPE');
  const nodes = Object.entries(LISTED).map(([name, type]) => {
    const node = packed.fields.get(name);
    const fits = node?.isLeaf && (type === 'string' ? node.codec === UTF8
      : node.codec === NDARRAY && node.dtype.name === type && node.rank === 0 && node.form === NATURAL);
    if (node?.whyUnreadable()) throw new PackbufError(node.whyUnreadable(), { path: name });
    if (!fits || node.buffer(ROLE.types)) bad(name);
    return [name, node];
  });
  const budget = new Budget(packed);
  if (nodes.length * packed.rows > 0) budget.spend(LISTED_BYTES * packed.rows, nodes[0][1]);
  let rows = 0n;
  return Array.from({ length: packed.rows }, (_, i) => {
    const fragment = Object.fromEntries(nodes.map(([name, node]) => [name, node.cell(i, budget) ?? bad(name, i)]));
    fragment.appends = APPENDS[fragment.appends]; // of another number none
    rows = rowsWith(fragment, rows) ?? bad('', i);
    return fragment;
  });
}

/** Calls `read`: what it is refused with is fragment i's. */
function ofFragment(i, read) {
  try {
    return read();
  } catch (error) {
    throw error instanceof PackbufError ? new PackbufError(error.error, { ...error, fragment: i }) : error;
  }
}

/** The last of the items, which ascend by first_row, that begins at or before a row; -1 when none does. */
function lastAt(items, row) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (items[middle].first_row <= row) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/**
 * Where rows of a field of the whole are: a node of one fragment, whose row 0 is row `first_row` of the whole.
 * @typedef {{ fragment: number, node: Node, first_row: number, rows: number }} Part
 */

/** A field of the whole. */
export class JoinedField {
  constructor(whole, name) {
    this.whole = whole;
    this.name = name;
    /** @type {Part[]} by row */
    this.parts = [];
  }

  get rows() {
    return this.whole.rows;
  }

  /** One cell; missing where no fragment has it, which widening allows. */
  cell(row, budget = new Budget(this.whole)) {
    const inRange = Number.isInteger(row) && row >= 0 && row < this.rows;
    if (!inRange) throw new PackbufError('OUT_OF_RANGE', { path: this.name, row });
    const part = this.parts[lastAt(this.parts, row)];
    if (!part || row >= part.first_row + part.rows) return undefined;
    return ofFragment(part.fragment, () => part.node.cell(row - part.first_row, budget));
  }

  /** The cells of some rows, as of a node. @param {Selection} [selection] */
  cells(selection) {
    const budget = new Budget(this.whole);
    return Array.from(selected(selection, this.rows), (row) => this.cell(row, budget));
  }

  /** DUPLICATE_NAME and SCHEMA_MISMATCH: no row twice, all parts of one type, and a part for every row. */
  check(widen) {
    this.parts.sort((a, b) => a.first_row - b.first_row || a.fragment - b.fragment);
    const wrong = (error, path, row, fragment) => { throw new PackbufError(error, { path, row, fragment }); };
    this.parts = this.parts.filter((part) => part.rows > 0);
    const first = this.parts.length > 0 && !widen ? schemaLines(this.parts[0].node) : [];
    let gap = -1;
    let rows = 0;
    for (const part of this.parts) {
      if (part.first_row < rows) wrong('DUPLICATE_NAME', this.name, part.first_row, part.fragment);
      if (part.first_row > rows && gap < 0) gap = rows;
      rows = part.first_row + part.rows;
      const lines = widen || part === this.parts[0] ? first : schemaLines(part.node);
      const all = Array.from({ length: Math.max(lines.length, first.length) });
      const at = all.findIndex((_, i) => lines[i]?.line !== first[i]?.line);
      if (at >= 0) wrong('SCHEMA_MISMATCH', (lines[at] ?? first[at]).node.path, -1, part.fragment);
    }
    if (gap < 0 && rows < this.rows) gap = rows;
    if (gap >= 0 && !widen) wrong('SCHEMA_MISMATCH', this.name, gap, this.whole.ownerOf(gap).fragment);
  }
}

/** Fragments read as one batch; `join` makes it. */
export class Joined {
  constructor(fragments, { list, widen = false, first = false, limits = {} }) {
    if (list && list.length !== fragments.length) throw new PackbufError('INVALID_ARGUMENT');
    this.limits = limitsOf(limits);
    this.firstValue = first;
    this.rows = 0;
    /** @type {Packed[]} */
    this.fragments = [];
    /** Of the fragments with rows that append rows: where they begin and end, and where the rows of their token end. */
    this.owners = [];
    /** @type {Map<string, JoinedField>} */
    this.fields = new Map();
    /** Batch values: name -> [fragment, node] of each that has it. */
    this.nodes = new Map();
    const listed = fragments.map((fragment, i) => this.add(fragment, i, list?.[i], limits));
    this.checkTokens(listed);
    for (const field of this.fields.values()) field.check(widen);
  }

  /** The fragment itself, against what is listed of it: where it lies among the rows. */
  add(fragment, number, listed, limits) {
    const opened = () => (fragment instanceof Packed ? fragment : open(fragment, { limits }));
    const packed = ofFragment(number, () => opened().load());
    const { header } = packed;
    const own = {
      length: BigInt(header.total_length), head_length: BigInt(header.head_length + header.index_length),
      rows: BigInt(header.rows), head_checksum: BigInt(header.head_checksum),
    };
    const refuse = (error) => { throw new PackbufError(error, { fragment: number }); };
    const unlike = listed && Object.keys(own).some((name) => listed[name] !== own[name]);
    if (header.kind !== 1 || unlike) refuse('FRAGMENT_MISMATCH');
    const { first_row, appends } = listed ?? { first_row: BigInt(this.rows), appends: 'rows' };
    this.rows = Number(rowsWith({ ...own, first_row, appends }, BigInt(this.rows)) ?? refuse('BAD_MANIFEST'));
    const token = hexOf(header.row_order_token);
    const place = { fragment: number, first_row: Number(first_row), rows: header.rows, appends, token };
    if (appends === 'rows' && place.rows > 0) this.owners.push({ ...place, end: place.first_row + place.rows });
    this.fragments.push(packed);
    for (const node of packed.top[0]) {
      if (!this.fields.has(node.name)) this.fields.set(node.name, new JoinedField(this, node.name));
      this.fields.get(node.name).parts.push({ fragment: number, node, first_row: place.first_row, rows: place.rows });
    }
    for (const node of packed.top[1]) {
      if (!this.nodes.has(node.name)) this.nodes.set(node.name, []);
      this.nodes.get(node.name).push([number, node]);
    }
    return place;
  }

  /** The fragment that appended a row. */
  ownerOf(row) {
    return this.owners[lastAt(this.owners, row)];
  }

  /** ROW_ORDER: fields are appended to rows of their own token. */
  checkTokens(places) {
    const { owners } = this;
    for (let i = owners.length - 1; i >= 0; i--) {
      const next = owners[i + 1];
      owners[i].until = next?.token === owners[i].token ? next.until : owners[i].end;
    }
    for (const { fragment, first_row, rows, appends, token } of places) {
      if (appends === 'rows' || rows === 0) continue;
      const owner = this.ownerOf(first_row);
      const same = owner.token === token && owner.until >= first_row + rows;
      if (/^0+$/.test(token) || !same) throw new PackbufError('ROW_ORDER', { fragment });
    }
  }

  /** @returns {JoinedField} the field of this name */
  field(name) {
    const field = this.fields.get(name);
    if (!field) throw new PackbufError('NOT_FOUND', { path: name });
    return field;
  }

  /** Names of the batch values. */
  get values() {
    return [...this.nodes.keys()];
  }

  /** A batch value, upon which all fragments that have it agree. */
  value(name) {
    const nodes = this.nodes.get(name);
    if (!nodes) throw new PackbufError('NOT_FOUND', { path: name });
    const budget = new Budget(this);
    const asked = this.firstValue ? nodes.slice(0, 1) : nodes;
    const [value, ...others] = asked.map(([i, node]) => ofFragment(i, () => node.cell(0, budget)));
    const at = others.findIndex((other) => !equal(value, other));
    if (at >= 0) throw new PackbufError('SCHEMA_MISMATCH', { path: name, fragment: nodes[at + 1][0] });
    return value;
  }

  /** A row as Map of field to value, without the fields that it does not have. */
  row(i) {
    const budget = new Budget(this);
    const cells = [...this.fields.values()].map((field) => [field.name, field.cell(i, budget)]);
    return new Map(cells.filter(([, value]) => value !== undefined));
  }
}

/**
 * Joins fragments. `list`: what a manifest lists of them (`fragments()`), in their order; without it all append rows.
 * `widen`: columns may differ in type; `first`: of batch values that differ, the first fragment's is read.
 * @param {(Packed | Uint8Array | ArrayBuffer)[]} fragments
 * @param {{ list?: ReturnType<typeof fragmentsOf>, widen?: boolean, first?: boolean,
 *   limits?: Partial<typeof LIMITS> }} [options]
 */
export function join(fragments, options = {}) {
  return new Joined(fragments, options);
}

// ---- 24. Schema text and fingerprint ----

/** The lines of a node and of all below it, with their nodes. */
function schemaLines(node) {
  const children = node.kind === KIND.list ? node.children : sortedByName(node.children);
  return [{ node, line: schemaLine(node) }, ...children.flatMap(schemaLines)];
}

const sortedByName = (nodes) => [...nodes].sort((a, b) => compareBytes(a.nameBytes, b.nameBytes));

function schemaOf(packed) {
  const lines = packed.top.flatMap((top) => sortedByName(top).flatMap(schemaLines)).map(({ line }) => line);
  return ['{"packbuf_schema":1}', ...lines].map((line) => `${line}\n`).join('');
}

function schemaLine(node) {
  const known = node.codec <= OPAQUE;
  const numbers = (node.codec >= NDARRAY && node.codec <= TYPED_RAGGED) || !known;
  const members = [[node.scope === 0 ? 'field' : 'value', quoted(node.path)]];
  const add = (when, name, text) => when && members.push([name, text]);
  add(!node.isLeaf, 'kind', quoted(node.codecName));
  add(node.isLeaf, 'codec', known ? quoted(CODEC[node.codec]) : node.codec);
  if (node.isLeaf) {
    add(numbers, 'dtype', node.dtype.name ? quoted(node.dtype.name) : `${node.dtype}`.replace('bit', '[1,1,1]'));
    add(numbers || node.codec === MEDIA_LIST, 'form', FORM[node.form] ? quoted(FORM[node.form]) : node.form);
    add(node.codec === NDARRAY, 'shape', `[${node.shape}]`);
    add(numbers && node.codec !== NDARRAY, 'rank', node.rank);
  }
  add(node.logical_type !== 0, 'logical_type', node.logical_type);
  add(node.parameter !== '', 'parameter', quoted(node.parameter));
  return `{${members.map(([name, text]) => `"${name}":${text}`).join(',')}}`;
}

/** SHA-256, for the fingerprint. */
export function sha256(bytes) {
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p !== 0)) primes.push(n);
  const fraction = (x) => Math.floor((x - Math.floor(x)) * 2 ** 32);
  const constants = primes.map((p) => fraction(Math.cbrt(p)));
  const state = Uint32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));
  const padded = new Uint8Array(roundUp(bytes.length + 9, 64));
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = viewOf(padded);
  view.setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  const rotate = (x, n) => x >>> n | x << 32 - n;
  const w = new Uint32Array(64);
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 64; i++) {
      const [a, b] = [w[i - 15], w[i - 2]];
      w[i] = i < 16 ? view.getUint32(block + 4 * i)
        : w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >>> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >>> 10);
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const one = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (e & f ^ ~e & g) + constants[i] + w[i];
      const two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + (a & b ^ a & c ^ b & c);
      [h, g, f, e, d, c, b, a] = [g, f, e, d + one | 0, c, b, a, one + two | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((x, i) => { state[i] += x; });
  }
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setUint32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

// ---- The packed buffer as its caller has it ----

/** A packed buffer. */
export class Packed {
  constructor(source, limits, file) {
    this.source = source;
    this.limits = limits;
    const { header, bytes } = readHeader(source, limits, file);
    /** @type {Header} */
    this.header = header;
    this.head = bytes;
    this.view = viewOf(bytes);
    this.loaded = null;
  }

  /** Rules N, B, M and S, once: node and buffer table, metadata and names. Whoever wants a field comes by here. */
  load() {
    if (this.loaded instanceof PackbufError) throw this.loaded;
    if (this.loaded) return this;
    /** @type {Node[]} */
    this.nodes = [];
    /** @type {TypedBuffer[]} */
    this.buffers = [];
    /** Pairs of strings, of a node or (null) of the whole. */
    this.metadata = [];
    /** The top-level nodes: fields, batch values. */
    this.top = [[], []];
    try {
      const table = new NodeTable(this);
      table.read();
      new BufferTable(this).read();
      for (const node of this.nodes) new BufferCounts(node).check();
      readMetadata(this, table);
      checkNames(this);
      this.loaded = true;
    } catch (error) {
      this.loaded = error;
      throw error;
    }
    return this;
  }

  /** Bytes [at, at + length), which the header has told to be there. */
  bytes(at, length) {
    const bytes = this.source.read(at, length);
    if (bytes.length !== length) throw new PackbufError('SHORT_READ', { offset: at });
    return bytes;
  }

  /** Bytes that must be UTF-8 as text; those of the head lie where `place` is not given. */
  text(rule, bytes, node, place = (i) => bytes.byteOffset - this.head.byteOffset + i) {
    const wrong = wrongUtf8(bytes);
    if (wrong >= 0) fail(rule, place(wrong), node);
    if (bytes.length > MOST_TEXT) fail('D9', place(0), node);
    return textOf(bytes);
  }

  get rows() {
    return this.header.rows;
  }

  /** @returns {Map<string, Node>} */
  get fields() {
    return new Map(this.load().top[0].map((node) => [node.name, node]));
  }

  /** Batch values. @returns {Map<string, Node>} */
  get values() {
    return new Map(this.load().top[1].map((node) => [node.name, node]));
  }

  /** @returns {Node} the field of this name */
  field(name) {
    const node = this.load().top[0].find((field) => field.name === name);
    if (!node) throw new PackbufError('NOT_FOUND', { path: name });
    return node;
  }

  /** A batch value. */
  value(name) {
    const node = this.load().top[1].find((value) => value.name === name);
    if (!node) throw new PackbufError('NOT_FOUND', { path: name });
    return node.cell(0);
  }

  /** A row as Map of field to value, without the fields that it does not have. */
  row(i) {
    const budget = new Budget(this);
    const cells = [...this.fields].map(([name, node]) => [name, node.cell(i, budget)]);
    return new Map(cells.filter(([, value]) => value !== undefined));
  }

  /** Checks all rules of a level. @param {'head' | 'index' | 'full'} level */
  verify(level = 'full') {
    if (!['head', 'index', 'full'].includes(level)) throw new PackbufError('INVALID_ARGUMENT');
    this.load();
    const walked = new Walked(this);
    withinMemory(() => {
      if (level !== 'head') verifyIndex(this, walked);
      if (level === 'full') verifyData(this, walked);
    });
    return this;
  }

  /** Every byte, by what it is for. @returns {Range[]} */
  layout() {
    return [...layoutOf(this.load())];
  }

  /** The whole as tagged JSON, verified in full before. */
  toJson() {
    this.verify('full');
    return withinMemory(() => this.allAsJson());
  }

  allAsJson() {
    const budget = new Budget(this);
    const members = (top, text) => `{${top.map((node) => `${quoted(node.name)}:${text(node)}`).join(',')}}`;
    const cell = (node, row) => taggedJson(node.cell(row, budget));
    const column = (node) => {
      const texts = [];
      for (let row = 0; row < this.rows; row++) texts.push(cell(node, row));
      return `[${texts.join(',')}]`;
    };
    const metadata = new Map(this.metadata.some((pair) => !pair.node) ? [['', []]] : []);
    for (const { node, key, value } of this.metadata) {
      const path = node ? (node.scope === 1 ? 'values:' : '') + node.path : '';
      if (!metadata.has(path)) metadata.set(path, []);
      metadata.get(path).push(`${quoted(key)}:${quoted(value)}`);
    }
    const paths = [...metadata].map(([path, pairs]) => `${quoted(path)}:{${pairs.join(',')}}`);
    const [fields, values] = [members(this.top[0], column), members(this.top[1], (node) => cell(node, 0))];
    return `{"rows":${this.rows},"fields":${fields},"values":${values},"metadata":{${paths.join(',')}}}`;
  }

  /** The schema text. */
  schema() {
    return schemaOf(this.load());
  }

  /** The first 16 bytes of the SHA-256 of the schema text, in hexadecimal. */
  fingerprint() {
    return hexOf(sha256(new TextEncoder().encode(this.schema())).subarray(0, 16));
  }

  /** What a manifest lists. */
  fragments() {
    return fragmentsOf(this);
  }
}

/**
 * Opens a packed buffer: rules H.
 * @param {Uint8Array | ArrayBuffer | { length: number, read(at: number, length: number): Uint8Array }} bytes
 * @param {{ limits?: Partial<typeof LIMITS>, file?: boolean }} [options] file: the bytes end with the packed buffer
 */
export function open(bytes, { limits = {}, file = false } = {}) {
  const source = bytes instanceof ArrayBuffer ? new Memory(new Uint8Array(bytes))
    : ArrayBuffer.isView(bytes) ? new Memory(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)) : bytes;
  return new Packed(source, limitsOf(limits), file);
}

// ---- The command line (Node only) ----

const USAGE = `    reader.mjs FILE                            prints the whole packed buffer as tagged JSON (section 22)
    reader.mjs --schema FILE...                prints the schema text of each, then its fingerprint
    reader.mjs --verify [head|index|full] FILE prints "ok", or "RULE ERROR offset PATH text" and ends with 1`;

async function main(args) {
  const fs = await import('node:fs');
  const openFile = (name) => open(fs.readFileSync(name), { file: true });
  const print = (text) => fs.writeFileSync(1, text);
  const refused = (error) => {
    print(`${error.rule || '-'} ${error.error} ${error.offset} ${error.path || '-'} ${error.holds || error.message}\n`);
    return 1;
  };
  try {
    if (args[0] === '--schema') for (const name of args.slice(1)) {
      const packed = openFile(name);
      print(`${packed.schema()}${packed.fingerprint()}\n`);
    } else if (args[0] === '--verify') {
      openFile(args.at(-1)).verify(args.length > 2 ? args[1] : 'full');
      print('ok\n');
    } else if (args.length === 1) print(`${openFile(args[0]).toJson()}\n`);
    else {
      console.error(USAGE);
      return 2;
    }
    return 0;
  } catch (error) {
    if (error instanceof PackbufError) return refused(error);
    console.error(error.message);
    return 2;
  }
}

/** Whether this file is what Node was asked to run. */
async function isProgram(name) {
  const [fs, url] = [await import('node:fs'), await import('node:url')];
  return fs.existsSync(name) && import.meta.url === url.pathToFileURL(fs.realpathSync(name)).href;
}

if (globalThis.process?.argv?.[1] && await isProgram(process.argv[1]))
  process.exitCode = await main(process.argv.slice(2));
