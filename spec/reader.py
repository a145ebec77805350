#!/usr/bin/env python3
"""The packbuf format 1.0 in executable form: packbuf.md beside this file, section by section, written from it alone.
    reader.py FILE                            prints the whole packed buffer as tagged JSON (section 22) on one line
    reader.py --schema FILE...                prints the schema text of each, then its fingerprint
    reader.py --verify [head|index|full] FILE prints "ok", or "RULE ERROR offset PATH text" (no PATH: -) and ends with 1

    packed = Packed(bytes, file=True)         opens and verifies the head: rules H, N, B, M and S (section 13)
    packed.verify("index"), .verify("full")   rules I; rules I and D
    packed.to_json()                          verifies in full, then returns the text of section 22
    packed.schema(), .fingerprint()           the schema text and its fingerprint (section 24)
    packed.fragments()                        what a manifest lists (section 23): a dict each
    whole = Joined([bytes, ...], listed)      the fragments, read as one batch; without a list all append rows
    whole.row(i), .cell(name, i), .value(name)

The bytes are untrusted: whatever they are, nothing but a PackbufError is raised, and no loop runs longer than the bytes
that are there.
"""
import base64
import bisect
import collections
import contextlib
import hashlib
import itertools
import math
import re
import struct
import sys

U32_NONE = 0xFFFFFFFF


class PackbufError(Exception):
    """A rule that is broken (section 13; "" where it is none of these), its error (section 14), and where."""

    def __init__(self, rule, offset, path, message, row=None, error=None, fragment=None):
        self.rule, self.error, self.offset, self.path = rule, error or ERROR_OF_RULE[rule], offset, path
        self.message, self.row, self.fragment = message, row, fragment
        super().__init__(f"{rule or '-'} {self.error} {offset} {path or '-'} {message}")


def refuse(error, message, path="", row=None, fragment=None):
    raise PackbufError("", -1, path, message, row, error, fragment)


# ---- 3. File header and directory ------------------------------------------------------------------------------------

MAGIC = b"\x89PBUF\r\n\x1a"
FILE_HEADER = struct.Struct("<8sHHBBHIIQQQQII")
DIRECTORY = struct.Struct("<IIIIHHHHQII16sI4s")
DATA_CHECKSUMS = 1
CHECKSUM_CHUNK = 65536


def _crc32c_table():
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


CRC32C_TABLE = tuple(_crc32c_table())


def crc32c(data):
    crc, table = 0xFFFFFFFF, CRC32C_TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


# ---- 4. Node table ---------------------------------------------------------------------------------------------------

LEAF, DICT, LIST = 1, 2, 3
NODE = struct.Struct("<IIIIIHBBBBBBHBBIIIIQ8s")


class Node:
    def __init__(self, packed, index, at):
        (self.parent_index, self.descendants, self.name_offset, self.name_length, self.first_buffer, self.buffer_count,
         self.kind, self.scope, self.codec, code, bits, self.form, lanes, self.rank, self.logical_type,
         self.shape_offset, self.parameter_offset, self.parameter_length, self.zero, self.rows,
         self.zero2) = NODE.unpack_from(packed.bytes, at)
        self.packed, self.index, self.at, self.dtype = packed, index, at, (code, bits, lanes)
        self.parent, self.children, self.position, self.buffers, self.shape = None, [], 0, [], ()
        self.unreadable = None

    @property
    def name(self):
        return self.packed.strings[self.name_offset:self.name_offset + self.name_length]

    @property
    def path(self):
        parts, node = [], self
        while node is not None:
            if node.parent is not None and node.parent.kind == LIST:
                parts.append(f"[{node.position}]")
            else:
                name = re.sub(r"([\\.\[])", r"\\\1", node.name.decode("utf-8", "replace"))
                parts.append(name if node.parent is None else "." + name)
            node = node.parent
        return "".join(reversed(parts))

    def buffer(self, role, dim=0):
        for b in self.buffers:
            if (b.role, b.dim) == (role, dim):
                return b
        return None


# ---- 5. Buffer table -------------------------------------------------------------------------------------------------

(DATA, OFFSETS, LENGTHS, SHAPE, NDIMS, VALIDITY, MISSING, TYPES,
 ITEM_OFFSETS, ROW_INDEX, PREFIX_ROW, PREFIX_LENGTH) = range(1, 13)
U8, U64, BIT = (1, 8, 1), (1, 64, 1), (1, 1, 1)
ROLE_DTYPE = {OFFSETS: U64, LENGTHS: U64, SHAPE: U64, NDIMS: U8, VALIDITY: BIT, MISSING: BIT, TYPES: U8,
              ITEM_OFFSETS: U64, ROW_INDEX: U64, PREFIX_ROW: U64, PREFIX_LENGTH: U64}
STORED, INLINE, CONSTANT, SEQUENCE, ALIAS = range(1, 6)
PLAIN, BLOCKS = 0, 1
BUFFER = struct.Struct("<IBBBBBBHIQQQ16sQ")


def byte_length(count, dtype):
    return (count * dtype[1] * dtype[2] + 7) // 8


class Buffer:
    def __init__(self, packed, index, at):
        (self.node_index, self.role, self.dim, self.storage, self.packing, code, bits, lanes, self.alias_of, self.count,
         self.offset, self.length, self.value, self.headers_offset) = BUFFER.unpack_from(packed.bytes, at)
        self.packed, self.index, self.at, self.dtype, self.unpacked = packed, index, at, (code, bits, lanes), None

    @property
    def unreadable(self):
        return self.packing not in (PLAIN, BLOCKS)

    @property
    def counted(self):
        """Whether D9 counts its bytes: of a known role and packing."""
        return DATA <= self.role <= PREFIX_LENGTH and not self.unreadable

    @property
    def blocks(self):
        """Of a buffer packed in blocks: its blocks (section 20), whatever their headers say."""
        blocks = [Block(self, k) for k in range(-(-byte_length(self.count, self.dtype) // BLOCK_BYTES))]
        for block, end in zip(blocks, [following.begin for following in blocks[1:]] + [self.offset + self.length]):
            block.end = end
        return blocks

    def elements(self, begin, end):
        """These bytes of the elements that are stored."""
        if self.packing == PLAIN:
            return self.packed.bytes[self.offset + begin:self.offset + end]
        if self.unpacked is None:
            target = self.packed.buffers[self.alias_of] if self.storage == ALIAS else self
            if target.unpacked is None:
                target.unpacked = b"".join(block.unpack() for block in target.blocks)
            self.unpacked = target.unpacked
        return self.unpacked[begin:end]

    @property
    def computed(self):
        """Constant or sequence: any number of elements without bytes of their own."""
        return self.storage in (CONSTANT, SEQUENCE)

    @property
    def section(self):
        return "data" if self.role == DATA else "index"

    def where(self, byte):
        """The offset of a byte of the unpacked elements; of computed ones, the record's value; of packed ones, the
        header of their block."""
        if self.storage == INLINE:
            return self.at + 40 + byte
        if self.packing == BLOCKS:
            return self.headers_offset + 16 * (byte // BLOCK_BYTES)
        return self.at + 40 if self.computed else self.offset + byte

    def where_element(self, i):
        return self.where(i * self.dtype[1] * self.dtype[2] // 8)

    def raw(self, first, count):
        """The bytes of elements first .. first + count, of whole bytes each."""
        size = self.dtype[1] * self.dtype[2] // 8
        if self.storage == CONSTANT:
            return self.value[:size] * count
        if self.storage == SEQUENCE:
            start, step = self.progression()
            return b"".join(((start + i * step) % 2**64).to_bytes(8, "little") for i in range(first, first + count))
        begin = first * size
        if self.storage == INLINE:
            return self.value[begin:begin + count * size]
        return self.elements(begin, begin + count * size)

    def byte(self, i):
        """Byte i of a mask."""
        return self.value[i] if self.storage == INLINE else self.elements(i, i + 1)[0]

    @property
    def affine(self):
        """(start, step) of a computed unsigned integer buffer."""
        return self.progression() if self.storage == SEQUENCE else (self[0], 0)

    def progression(self):
        start = int.from_bytes(self.value[:8], "little", signed=self.dtype[0] == 0)
        return start, int.from_bytes(self.value[8:], "little", signed=True)

    def __getitem__(self, i):
        """Element i of an unsigned integer role."""
        if self.dtype == BIT:
            return self.value[0] if self.storage == CONSTANT else self.byte(i >> 3) >> (i & 7) & 1
        if self.storage == SEQUENCE:
            start, step = self.progression()
            return start + i * step
        return int.from_bytes(self.raw(i, 1), "little")


def rows_to_check(rows, buffers, enough=16):
    """How many rows a check has to look at. Rows with bytes of their own are all looked at: there are no more than the
    bytes hold. Where every buffer is absent, constant or a sequence, the first rows decide: constants say the same of
    each row; a sequence of lengths leaves its range (0 to the number of children, which `enough` covers) soon or never;
    and the product of at most eight sequences that equals a ninth in nine rows equals it in all."""
    return rows if any(b is not None and b.count and not b.computed for b in buffers) else min(rows, enough)


# ---- 8. dtypes -------------------------------------------------------------------------------------------------------

INT, UINT, FLOAT, BFLOAT, COMPLEX, BOOL, E4M3, E5M2 = 0, 1, 2, 4, 5, 6, 10, 12
UNIT_CODES = (INT, UINT, FLOAT, BFLOAT, BOOL, E4M3, E5M2)
DTYPES = {(code, bits, 1): f"{name}{bits}" for code, name, sizes in
          ((INT, "int", (8, 16, 32, 64)), (UINT, "uint", (8, 16, 32, 64)), (FLOAT, "float", (16, 32, 64)),
           (BFLOAT, "bfloat", (16,)), (COMPLEX, "complex", (64, 128))) for bits in sizes}
DTYPES |= {(BOOL, 8, 1): "bool", (E4M3, 8, 1): "float8_e4m3fn", (E5M2, 8, 1): "float8_e5m2"}
# bits of the exponent, of the fraction
FLOAT_FIELDS = {(FLOAT, 16): (5, 10), (FLOAT, 32): (8, 23), (BFLOAT, 16): (8, 7), (E4M3, 8): (4, 3), (E5M2, 8): (5, 2)}


def widen(bits, code, width):
    """The bits of the float64 of the same value; the payload of a NaN moves to the top of the wider fraction."""
    if (code, width) == (FLOAT, 64):
        return bits
    exponent_bits, fraction_bits = FLOAT_FIELDS[code, width]
    sign, top = bits >> (width - 1) << 63, (1 << exponent_bits) - 1
    exponent, fraction = bits >> fraction_bits & top, bits & (1 << fraction_bits) - 1
    if code == E4M3 and exponent == top and fraction == 7:
        return sign | 0x7FF8 << 48
    if code != E4M3 and exponent == top:
        return sign | 0x7FF << 52 | fraction << (52 - fraction_bits)
    scale = max(exponent, 1) - (top >> 1) - fraction_bits
    value = math.ldexp(fraction + (1 << fraction_bits if exponent else 0), scale)
    return sign | struct.unpack("<Q", struct.pack("<d", value))[0]


# ---- 9. Codecs -------------------------------------------------------------------------------------------------------

(C_NULL, C_NDARRAY, C_TENSOR, C_TYPED, C_BYTES, C_MEDIA, C_MEDIA_LIST,
 C_UTF8, C_JSON, C_MSGPACK, C_OPAQUE) = range(1, 12)
RAGGED = (C_TENSOR, C_TYPED)
NATURAL, F_LIST, F_ARRAY, F_TENSOR, F_SCALAR, F_BYTES, F_MEDIA = range(7)
FORM_NAMES = {F_ARRAY: "array", F_TENSOR: "tensor", F_SCALAR: "scalar"}
TYPE_BOOL, TYPE_INT = 1, 2
_INT64 = C_NDARRAY, (INT, 64, 1)
ATTRIBUTES = {"mime": (C_UTF8, U8), "height": _INT64, "width": _INT64, "channels": _INT64, "mode": (C_UTF8, U8),
              "rate": (C_NDARRAY, (FLOAT, 64, 1))}
EXACT_INT = {16: 2**11, 32: 2**24, 64: 2**53}  # up to this magnitude every integer is a float of so many bits


def forms_allowed(node):
    if node.codec == C_NDARRAY:
        return (NATURAL, F_ARRAY, F_TENSOR, F_SCALAR) if node.rank == 0 else (F_ARRAY, F_TENSOR)
    allowed = {C_TENSOR: (F_TENSOR,), C_TYPED: (F_LIST, F_ARRAY), C_MEDIA_LIST: (F_BYTES, F_MEDIA)}
    return allowed.get(node.codec, (NATURAL,))


def type_allowed(node, value):
    form, number = value >> 4, value & 15
    if form and form not in forms_allowed(node):
        return False
    if number == 0:
        return True
    if node.codec == C_MEDIA_LIST or (form or node.form) not in (NATURAL, F_LIST) or node.dtype not in DTYPES:
        return False
    return number == TYPE_BOOL and node.dtype[0] in (INT, UINT, FLOAT) or number == TYPE_INT and node.dtype[0] == FLOAT


def exact(raw, dtype, number):
    """Whether an element is of the number type: of bool 0 or 1; of int integral, within the exact range; never -0.0."""
    if dtype[0] != FLOAT:
        return int.from_bytes(raw, "little") in (0, 1)
    value = struct.unpack("<d", widen(int.from_bytes(raw, "little"), FLOAT, dtype[1]).to_bytes(8, "little"))[0]
    if math.copysign(1, value) < 0 and value == 0:
        return False
    return value in (0, 1) if number == TYPE_BOOL else abs(value) <= EXACT_INT[dtype[1]] and value == math.floor(value)


def stored_rows(node):
    """How many rows the data of a leaf hold: with a row_index as many as offsets delimit; 0 where these are absent."""
    if not node.buffer(ROW_INDEX):
        return node.rows
    if node.codec == C_NDARRAY:
        data, each = node.buffer(DATA), math.prod(node.shape)
        return data.count // each if data and each else 0
    offsets = node.buffer(ITEM_OFFSETS if node.codec == C_MEDIA_LIST else OFFSETS)
    return max(offsets.count - 1, 0) if offsets else 0


def stored_row(node, row):
    index = node.buffer(ROW_INDEX)
    return index[row] if index else row


# ---- 10. Masks and absent cells --------------------------------------------------------------------------------------


def present(node, row):
    validity = node.buffer(VALIDITY)
    return bool(validity[row]) if validity else not (node.kind == LEAF and node.codec == C_NULL)


def stored_present(node, row):
    return bool(node.buffer(ROW_INDEX)) or present(node, row)


def is_missing(node, row):
    missing = node.buffer(MISSING)
    return bool(missing and not missing.unreadable and missing[row])


# ---- 20. Packing in blocks -------------------------------------------------------------------------------------------

BLOCK_BYTES, ROW_BYTES = 8192, 128
M_PLAIN, M_LINE, M_FRAME, M_ZERO, M_SPLIT, M_DICTIONARY = range(6)
BLOCK_HEADER = struct.Struct("<QIBBBB")


def packable(dtype):
    """Whether section 20 packs it: also what section 8 does not list."""
    code, bits, lanes = dtype
    return dtype == BIT or code in UNIT_CODES and bits in (8, 16, 32, 64) and lanes == 1


def round_up(n):
    return -(-n // 64) * 64


class Block:
    def __init__(self, b, k):
        self.buffer, self.data, self.at = b, b.packed.bytes, b.headers_offset + 16 * k
        self.base, self.place, mode, self.width, self.shift, self.extra = BLOCK_HEADER.unpack_from(self.data, self.at)
        self.filled, self.mode = bool(mode & 128), mode & 127
        self.bits = max(b.dtype[1], 8)  # T
        units = -(-byte_length(b.count, b.dtype) * 8 // self.bits)
        self.count = min(units - k * (8 * BLOCK_BYTES // self.bits), 8 * BLOCK_BYTES // self.bits)
        self.lanes = 8 * ROW_BYTES // self.bits
        self.rows = -(-self.count // self.lanes)
        self.begin = b.offset + 64 * self.place
        self.end = None  # where the next begins
        self.value_bytes, self.step_bytes = self.shift & 15, self.shift >> 4  # of mode line, each

    # I15

    def wrong_field(self):
        """The place in the header of the first field that the mode does not allow, or None."""
        t, mode, zero = self.bits, self.mode, (0, 0)
        if mode > M_DICTIONARY or self.filled and mode == M_LINE or mode == M_DICTIONARY and t not in (16, 32):
            return 12
        width, shift, extra = zero, zero, zero  # the least and the largest that are allowed
        if mode == M_LINE:
            extra = 0, 64
            width = (0, 255) if self.extra == 0 or self.step_bytes == 0 else zero
            sizes = [n for n in (0, 1, 2, 4, 8) if n <= t // 8]
            if self.extra and self.value_bytes in sizes and self.step_bytes in sizes:
                shift = self.shift, self.shift
        elif mode == M_FRAME:
            width, shift = (1, t), (0, t - self.width)
        elif mode == M_ZERO:
            width = 1, t
        elif mode == M_SPLIT:
            width = 1, t - 8
        elif mode == M_DICTIONARY:
            shift, extra = (t - 16, t - 1), (0, 31)
            exact = max(self.shift + self.extra.bit_length(), 1)
            width = exact, min(exact, t)
        base = 0, (1 << t) - 1 if mode in (M_LINE, M_FRAME, M_ZERO) else 0
        for value, (least, most), field in ((self.base, base, 0), (self.width, width, 13), (self.shift, shift, 14),
                                            (self.extra, extra, 15)):
            if not least <= value <= most:
                return field
        return None

    # I16

    def code_bytes(self, rows):
        return ROW_BYTES * -(-rows * self.width // self.bits)

    def length(self):
        """The bytes of a payload that the header alone tells; None where the payload has to be asked."""
        if self.filled or self.mode == M_SPLIT:
            return None
        return round_up(self.body_length(self.rows, self.count))

    def body_length(self, rows, count):
        if self.mode == M_LINE:
            return self.extra * (2 + self.value_bytes + self.step_bytes)
        if self.mode == M_PLAIN:
            return count * self.bits // 8
        return self.code_bytes(rows) + (64 if self.mode == M_DICTIONARY else 0)

    # I17, D10, and what a block holds

    def payload(self):
        return self.data[self.begin:self.end]

    def dense_rows(self):
        """The numbers of the rows whose units the payload has, and where these begin in it."""
        if not self.filled:
            return list(range(self.rows)), 0
        mask = int.from_bytes(self.payload()[:8], "little")
        return [r for r in range(64) if mask >> r & 1], 64

    def wrong(self):
        """What is wrong with the payload, or None."""
        payload, (dense, at), size = self.payload(), self.dense_rows(), self.bits // 8
        if self.filled:
            if len(payload) < 64 or not dense or dense[-1] >= self.rows:
                return "dense rows that are not there, or none"
            if any(payload[8 + size:64]):
                return "bytes after the fill"
        rows, body = len(dense), payload[at:]
        used = self.body_length(rows, rows * self.lanes if self.filled else self.count)
        if self.mode == M_SPLIT:
            bitmap = body[used:used + rows * self.lanes // 8]
            used += round_up(rows * self.lanes // 8)
            if any(body[used - round_up(len(bitmap)) + len(bitmap):used]):
                return "bytes after the bitmap that are not zero"
            used += int.from_bytes(bitmap, "little").bit_count()
        if len(body) != round_up(used):
            return f"{len(body)} bytes where {round_up(used)} belong"
        if any(body[used:]):
            return "bytes after its end that are not zero"
        if self.mode == M_LINE and self.extra:
            firsts = [first for first, _, _ in self.lines(body)]
            if firsts[0] or firsts[-1] >= self.count or any(a >= b for a, b in zip(firsts, firsts[1:])):
                return "first units that do not ascend from 0"
        if self.mode == M_DICTIONARY:
            tops = struct.unpack_from("<32H", body)
            used, rest = tops[:self.extra + 1], tops[self.extra + 1:]
            if any(a >= b for a, b in zip(used, used[1:])) or used[-1] >> (self.bits - self.shift) or any(rest):
                return "tops that do not ascend, or too large"
        return None

    def lines(self, body):
        """First unit, value, step of each."""
        n, v, s = self.extra, self.value_bytes, self.step_bytes
        step = self.width - 256 if self.width > 127 else self.width
        if n == 0:
            return [(0, self.base, step)]
        values, steps, lines = body[2 * n:][:v * n], body[(2 + v) * n:], []
        for i, first in enumerate(struct.unpack_from(f"<{n}H", body)):
            value = self.base + int.from_bytes(values[v * i:v * (i + 1)], "little")
            own = int.from_bytes(steps[s * i:s * (i + 1)], "little", signed=True)
            lines.append((first, value, own if s else step))
        return lines

    def unpack(self):
        """The bytes of the units."""
        t, payload = self.bits, self.payload()
        letter = {8: "B", 16: "H", 32: "I", 64: "Q"}[t]
        if self.mode == M_LINE:
            lines, units = self.lines(payload), []
            for (first, value, step), end in zip(lines, [line[0] for line in lines[1:]] + [self.count]):
                units += [(value + i * step) % (1 << t) for i in range(end - first)]
            return struct.pack(f"<{self.count}{letter}", *units)
        dense, at = self.dense_rows()
        body, n = payload[at:], len(dense) * self.lanes
        if self.mode == M_PLAIN:
            units = struct.unpack(f"<{n}{letter}", body[:n * t // 8].ljust(n * t // 8, b"\0"))
        else:
            units = self.coded_units(body, len(dense))
        if self.filled:
            fill = int.from_bytes(payload[8:8 + t // 8], "little")
            rows = [[fill] * self.lanes for _ in range(self.rows)]
            for i, row in enumerate(dense):
                rows[row] = units[i * self.lanes:(i + 1) * self.lanes]
            units = [unit for row in rows for unit in row]
        return struct.pack(f"<{self.count}{letter}", *units[:self.count])

    def coded_units(self, body, rows):
        wrap, base = (1 << self.bits) - 1, self.base
        if self.mode == M_FRAME:
            return [base + (code << self.shift) & wrap for code in self.codes(body, rows)]
        if self.mode == M_ZERO:
            return [base + code - 2 & wrap if code > 1 else code << (self.bits - 1) for code in self.codes(body, rows)]
        if self.mode == M_DICTIONARY:
            tops, low = struct.unpack_from("<32H", body), (1 << self.shift) - 1
            codes = [(code >> self.shift, code & low) for code in self.codes(body[64:], rows)]
            return [(tops[top if top <= self.extra else 0] << self.shift) + rest & wrap for top, rest in codes]
        bitmap, count = self.code_bytes(rows), rows * self.lanes
        flags = int.from_bytes(body[bitmap:bitmap + count // 8], "little")
        following = iter(body[bitmap + round_up(count // 8):])
        return [code + (next(following) << self.width if flags >> i & 1 else 0)
                for i, code in enumerate(self.codes(body, rows))]

    def codes(self, body, rows):
        """Of all units, those of the first row first."""
        size, out = self.bits // 8, [0] * (rows * self.lanes)
        words = self.code_bytes(rows) // ROW_BYTES
        for lane in range(self.lanes):
            places = [ROW_BYTES * j + lane * size for j in range(words)]
            run = int.from_bytes(b"".join(body[at:at + size] for at in places), "little")
            for row in range(rows):
                out[row * self.lanes + lane] = run >> row * self.width & (1 << self.width) - 1
        return out


# ---- 22. Tagged JSON (its pieces; the whole buffer is at the end) ----------------------------------------------------

SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quote(text):
    def escape(m):
        return SHORT_ESCAPES.get(m.group(), f"\\u{ord(m.group()):04x}")

    return '"' + re.sub(r'["\\\x00-\x1f]', escape, text) + '"'


def base64_text(data):
    return '"' + base64.b64encode(data).decode() + '"'


def float_text(bits):
    if bits == 0x7FF8 << 48:
        return "NaN"
    value = struct.unpack("<d", bits.to_bytes(8, "little"))[0]
    if value != value:
        return f'{{"$float":"{bits:016x}"}}'
    return repr(value) if abs(value) != math.inf else "Infinity" if value > 0 else "-Infinity"


def bytes_text(data):
    return f'{{"$bytes":{base64_text(data)}}}'


def tensor_text(form, dtype, shape, data):
    what = f'"form":"{FORM_NAMES[form]}","dtype":"{DTYPES[dtype]}","shape":{list_text(map(str, shape))}'
    return f'{{"$tensor":{{{what},"data":{base64_text(data)}}}}}'


def media_text(attributes, data):
    return '{"$media":{' + "".join(f'"{name}":{text},' for name, text in attributes) + f'"data":{base64_text(data)}}}}}'


def opaque_text(serializer, data):
    return f'{{"$opaque":{{"serializer":{quote(serializer)},"data":{base64_text(data)}}}}}'


def list_text(items):
    return "[" + ",".join(items) + "]"


def dict_text(items):
    """items: key, value, key, value, ... as tagged JSON."""
    keys, pairs = items[::2], list(zip(items[::2], items[1::2]))
    if all(key.startswith('"') for key in keys) and not (len(keys) == 1 and keys[0].startswith('"$')):
        return "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
    return '{"$dict":' + list_text([f"[{key},{value}]" for key, value in pairs]) + "}"


# ---- 11. JSON cells --------------------------------------------------------------------------------------------------


class Stop(Exception):
    """A cell stops being what it should be at a byte; too_deep: it is nested beyond the limit instead."""

    def __init__(self, position, message, too_deep=False):
        self.position, self.message, self.too_deep = position, message, too_deep
        super().__init__(message)


ESCAPED = {b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}
PLAIN_RUN = re.compile(rb'[^"\\\x00-\x1f]*')
SPACE = re.compile(rb"[ \t\n\r]*")
DIGITS = re.compile(rb"[0-9]*")


def utf8(data, base=0):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Stop(base + error.start, "not UTF-8") from None


def json_string(text, pos):
    """The string whose opening quote is at pos, and where it ends."""
    parts, pos = [], pos + 1
    while True:
        run = PLAIN_RUN.match(text, pos)
        parts.append(run.group().decode())
        pos = run.end()
        c = text[pos:pos + 1]
        if c == b'"':
            return "".join(parts), pos + 1
        if c != b"\\":
            raise Stop(pos, "a string ends too early or holds a bare control character")
        kind = text[pos + 1:pos + 2]
        if kind in ESCAPED:
            parts.append(ESCAPED[kind])
            pos += 2
            continue
        if kind != b"u":
            raise Stop(pos + 1, "an unknown escape")
        unit, following = json_hex4(text, pos + 2), text[pos + 6:pos + 8]
        if unit < 0xD800 or unit > 0xDFFF:
            parts.append(chr(unit))
            pos += 6
        elif unit < 0xDC00 and following == b"\\u" and 0xDC00 <= (low := json_hex4(text, pos + 8)) <= 0xDFFF:
            parts.append(chr(0x10000 + (unit - 0xD800 << 10) + low - 0xDC00))
            pos += 12
        elif unit < 0xDC00 and following in (b"", b"\\"):
            raise Stop(len(text), "the text ends inside a surrogate pair")
        else:
            raise Stop(pos, "a lone surrogate")


def json_hex4(text, pos):
    for i in range(pos, pos + 4):
        if text[i:i + 1] not in b"0123456789abcdefABCDEF" or i >= len(text):
            raise Stop(i, "four hexadecimal digits belong here")
    return int(text[pos:pos + 4], 16)


def json_word(text, pos, word):
    for i, byte in enumerate(word):
        if text[pos + i:pos + i + 1] != bytes((byte,)):
            raise Stop(pos + i, f"{word.decode()} belongs here")
    return pos + len(word)


def json_digits(text, pos):
    end = DIGITS.match(text, pos).end()
    if end == pos:
        raise Stop(pos, "a digit belongs here")
    return end


def json_number(text, start):
    """The tagged JSON of a number, and where it ends."""
    pos = start + (text[start:start + 1] == b"-")
    if text[pos:pos + 1] == b"I":
        pos = json_word(text, pos, b"Infinity")
        return text[start:pos].decode(), pos
    pos = pos + 1 if text[pos:pos + 1] == b"0" else json_digits(text, pos)
    integer = True
    if text[pos:pos + 1] == b".":
        integer, pos = False, json_digits(text, pos + 1)
    if text[pos:pos + 1] in (b"e", b"E"):
        integer, pos = False, json_digits(text, pos + 1 + (text[pos + 1:pos + 2] in (b"+", b"-")))
    digits = text[start:pos].decode()
    if integer:
        return "0" if digits == "-0" else digits, pos
    value = float(digits)
    if abs(value) == math.inf:
        raise Stop(start, "a number beyond float64")
    return repr(value), pos


def json_cell(text, depth):
    """The tagged JSON of a cell. A text ends where it stops being UTF-8."""
    try:
        utf8(text)
    except Stop as stop:
        json_text(text[:stop.position], depth)  # what is wrong before comes first
        raise
    if text.strip(b" \t\n\r") == b"null":
        raise Stop(SPACE.match(text).end(), "null as a whole cell")
    return json_text(text, depth)


def json_text(text, depth):
    """The tagged JSON of one JSON text."""
    # what encloses pos: the names so far (None in a list) and the items; first, the cell itself
    open_, pos = [(None, [])], SPACE.match(text).end()

    def key(pos):
        if text[pos:pos + 1] != b'"':
            raise Stop(pos, "a key belongs here")
        name, end = json_string(text, pos)
        names, items = open_[-1]
        if name in names:
            raise Stop(pos, "a key that is there already")
        names.add(name)
        items.append(quote(name))
        end = SPACE.match(text, end).end()
        return SPACE.match(text, json_word(text, end, b":")).end()

    while True:
        c = text[pos:pos + 1]
        if c in (b"[", b"{"):
            if len(open_) > depth:
                raise Stop(0, "nested too deeply", True)
            open_.append((set() if c == b"{" else None, []))
            pos = SPACE.match(text, pos + 1).end()
            if text[pos:pos + 1] != (b"}" if c == b"{" else b"]"):
                pos = key(pos) if c == b"{" else pos
                continue
        elif c == b'"':
            string, pos = json_string(text, pos)
            open_[-1][1].append(quote(string))
        elif c in (b"n", b"t", b"f", b"N"):
            word = {b"n": b"null", b"t": b"true", b"f": b"false", b"N": b"NaN"}[c]
            pos = json_word(text, pos, word)
            open_[-1][1].append(word.decode())
        elif c and c in b"-0123456789I":
            number, pos = json_number(text, pos)
            open_[-1][1].append(number)
        else:
            raise Stop(pos, "a value belongs here")
        while True:  # after a value, or at the end of an empty list or object
            pos = SPACE.match(text, pos).end()
            c = text[pos:pos + 1]
            names, items = open_[-1]
            if len(open_) == 1:
                if pos != len(text):
                    raise Stop(pos, "something follows the value")
                return items[0]
            if c == (b"]" if names is None else b"}"):
                open_.pop()
                open_[-1][1].append(list_text(items) if names is None else dict_text(items))
                pos += 1
            elif c == b",":
                pos = SPACE.match(text, pos + 1).end()
                pos = key(pos) if names is not None else pos
                break
            else:
                raise Stop(pos, "a comma or the end of a list or object belongs here")


# ---- 12. MessagePack cells -------------------------------------------------------------------------------------------

BIG_INTEGER = re.compile(rb"-?[1-9][0-9]*")


def msgpack_token(data, start):
    """The object whose first byte is at start, for a list or map only its count: (kind, value, end)."""
    def take(pos, count):
        if pos + count > len(data):
            raise Stop(len(data), "the cell ends too early")
        return data[pos:pos + count]

    def unsigned(pos, count):
        return int.from_bytes(take(pos, count), "big")

    t, pos = unsigned(start, 1), start + 1
    if t <= 0x7F or t >= 0xE0:
        return "int", str(t if t <= 0x7F else t - 256), pos
    if t <= 0x8F:
        return "map", t & 15, pos
    if t <= 0x9F:
        return "list", t & 15, pos
    if t <= 0xBF:
        return "str", utf8(take(pos, t & 31), pos), pos + (t & 31)
    if t == 0xC1:
        raise Stop(start, "the type byte 0xC1")
    if t in (0xC0, 0xC2, 0xC3):
        return {0xC0: ("nil", "null", pos), 0xC2: ("bool", "false", pos), 0xC3: ("bool", "true", pos)}[t]
    if t in (0xCA, 0xCB):
        size = 4 if t == 0xCA else 8
        return "float", widen(unsigned(pos, size), FLOAT, size * 8), pos + size
    if 0xCC <= t <= 0xD3:
        size = 1 << (t & 3)
        return "int", str(int.from_bytes(take(pos, size), "big", signed=t >= 0xD0)), pos + size
    if t in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
        size = 1 << (t - (0xC4 if t < 0xD0 else 0xD9))
        length, pos = unsigned(pos, size), pos + size
        body = take(pos, length)
        return ("bin", body, pos + length) if t < 0xD0 else ("str", utf8(body, pos), pos + length)
    if t >= 0xDC:
        size = 2 if t in (0xDC, 0xDE) else 4
        return "list" if t < 0xDE else "map", unsigned(pos, size), pos + size
    if t <= 0xC9:  # ext 8, 16, 32
        size = 1 << (t - 0xC7)
        length, pos = unsigned(pos, size), pos + size
    else:          # fixext 1, 2, 4, 8, 16
        length = 1 << (t - 0xD4)
    ext, body, end = unsigned(pos, 1), take(pos + 1, length), pos + 1 + length
    try:
        kind, value = msgpack_ext(ext, body)
    except Stop as stop:
        raise Stop(start, stop.message) from None
    return kind, value, end


def msgpack_ext(ext, body):
    if ext == 1:
        digits = body.decode("ascii") if BIG_INTEGER.fullmatch(body) else ""
        if not digits or len(digits) < 25 and -2**63 <= int(digits) < 2**64:
            raise Stop(0, "not the decimal text of an integer beyond 64 bits")
        return "int", digits
    if ext == 2:
        form, code, bits, rank = body[:4] if len(body) >= 4 else (0, 0, 0, 9)
        elements = 4 + 8 * rank
        if form not in FORM_NAMES or rank > 8 or form == F_SCALAR and rank or (code, bits, 1) not in DTYPES:
            raise Stop(0, "not a tensor, array or scalar")
        if len(body) < elements:
            raise Stop(0, "dimensions that are not all there")
        shape, body = struct.unpack_from(f"<{rank}Q", body, 4), body[elements:]
        if math.prod(n for n in shape if n) * bits // 8 >= 2**63 or math.prod(shape) * bits // 8 != len(body):
            raise Stop(0, "elements that do not fit their shape")
        if code == BOOL and body.strip(b"\0\1"):
            raise Stop(0, "a bool that is neither 0 nor 1")
        return "tagged", tensor_text(form, (code, bits, 1), shape, body)
    if ext == 3:
        kind, count, pos = msgpack_token(body, 0)
        order, attributes = list(ATTRIBUTES), []
        for _ in range(count if kind == "map" and count <= 6 else 7):
            kind, name, pos = msgpack_token(body, pos)
            if kind != "str" or name not in order:
                raise Stop(0, "not an attribute of media, or not in order")
            order = order[order.index(name) + 1:]
            kind, value, pos = msgpack_token(body, pos)
            if kind != ("str" if name in ("mime", "mode") else "float" if name == "rate" else "int") or \
                    kind == "int" and not (len(value) < 25 and 0 <= int(value) < 2**63):
                raise Stop(0, "an attribute of the wrong type")
            attributes.append((name, {"str": quote, "float": float_text, "int": str}[kind](value)))
        return "tagged", media_text(attributes, body[pos:])
    if ext == 4:
        kind, serializer, pos = msgpack_token(body, 0)
        if kind != "str":
            raise Stop(0, "not a serializer's name")
        return "tagged", opaque_text(serializer, body[pos:])
    raise Stop(0, "an unknown extension type")


def msgpack_cell(data, depth):
    """The tagged JSON of one MessagePack object."""
    # what encloses pos: objects it has in all, keys so far (None in a list), items; first, the cell itself
    open_, pos = [(1, None, [])], 0
    if data == b"\xc0":
        raise Stop(0, "nil as a whole cell")
    while True:
        _, keys, items = open_[-1]
        kind, value, end = msgpack_token(data, pos)
        if keys is not None and len(items) % 2 == 0:
            if kind in ("list", "map", "tagged") or (kind, value) in keys:
                raise Stop(pos, "a key of a wrong type, or that is there already")
            keys.add((kind, value))
        pos = end
        if kind in ("list", "map"):
            if len(open_) > depth:
                raise Stop(0, "nested too deeply", True)
            open_.append((value if kind == "list" else 2 * value, set() if kind == "map" else None, []))
        else:
            items.append({"str": quote, "bin": bytes_text, "float": float_text}.get(kind, str)(value))
        while len(open_) > 1 and len(open_[-1][2]) == open_[-1][0]:
            _, keys, items = open_.pop()
            open_[-1][2].append(list_text(items) if keys is None else dict_text(items))
        if len(open_) == 1:
            if pos != len(data):
                raise Stop(pos, "something follows the object")
            return open_[0][2][0]


# ---- 13, 14. Rules and errors ----------------------------------------------------------------------------------------

_ERRORS = """
H1 TRUNCATED H2 BAD_MAGIC H3 UNSUPPORTED_VERSION H4 UNSUPPORTED_FEATURE H5 UNSUPPORTED_KIND H6 BAD_HEADER H7 BAD_HEADER
H8 TRUNCATED H9 TRAILING_BYTES H10 LIMIT H11 HEAD_CHECKSUM H12 BAD_HEADER H13 NOT_ZERO H14 BAD_HEADER H15 NOT_ZERO
N1 BAD_NODE N2 BAD_NODE N3 DEPTH N4 BAD_NODE N5 BAD_NODE N6 NOT_ZERO N7 BAD_SHAPE N8 BAD_NODE N9 BAD_NODE N10 BAD_LAYOUT
N11 BAD_NAME N12 BAD_UTF8 N13 BAD_SHAPE N14 BAD_NODE N15 BAD_NODE
B1 BAD_BUFFER B2 BAD_BUFFER B3 BAD_BUFFER B4 BAD_BUFFER B5 NOT_ZERO B6 BAD_BUFFER B7 BAD_BUFFER B8 BAD_BUFFER
B9 BAD_BUFFER B10 BAD_BUFFER B11 BAD_LAYOUT B12 BAD_LAYOUT B13 BAD_BUFFER B14 BAD_BUFFER
M1 BAD_METADATA M2 BAD_METADATA M3 BAD_LAYOUT M4 BAD_UTF8 M5 NOT_ZERO S1 BAD_NAME S2 BAD_NAME S3 DUPLICATE_NAME
I1 INDEX_CHECKSUM I2 NOT_ZERO I3 BAD_MASK I4 BAD_MASK I5 BAD_MASK I6 BAD_MASK I7 BAD_OFFSETS I8 BAD_OFFSETS
I9 BAD_OFFSETS I10 BAD_SHAPE I11 BAD_SHAPE I12 BAD_TYPES I13 BAD_REFERENCE I14 BAD_REFERENCE
I15 BAD_BLOCK I16 BAD_BLOCK I17 BAD_BLOCK
D1 DATA_CHECKSUM D2 NOT_ZERO D3 BAD_BOOL D4 NOT_ZERO D5 BAD_TYPES D6 BAD_UTF8 D7 BAD_JSON D8 BAD_MSGPACK D9 LIMIT
D10 BAD_BLOCK""".split()
ERROR_OF_RULE = dict(zip(_ERRORS[::2], _ERRORS[1::2]))

# ---- 15. Limits ------------------------------------------------------------------------------------------------------

LIMITS = {"head_bytes": 2**30, "nodes": 2**20, "buffers": 2**22, "metadata": 2**16, "rows": 2**48, "depth": 64,
          "decoded_bytes": 2**40, "cell_depth": 512, "cell_bytes": 2**30,
          "shown": 2**26}  # of to_json alone: cells and bytes that are printed


class Packed:
    def __init__(self, data, file=True, limits=None):
        self.bytes, self.file, self.limits = bytes(data), file, {**LIMITS, **(limits or {})}
        self.check_header()
        self.check_nodes()
        self.check_buffers()
        self.check_metadata()
        self.check_names()

    def fail(self, rule, at, message, node=None, row=None):
        path, place = "" if node is None else node.path, "" if row is None else f"row {row}: "
        raise PackbufError(rule, at, path, place + message, row)

    def verify(self, level="full"):
        """head: what Packed() has checked; index: rules I too; full: rules D too."""
        if level in ("index", "full"):
            self.check_index()
        if level == "full":
            self.check_data()

    # -- H: section 3

    def check_header(self):
        data, fail = self.bytes, self.fail
        if len(data) < 128:
            fail("H1", len(data), "not even the file header and directory are there")
        (magic, major, self.version_minor, self.kind, exponent, self.profile, required, optional, self.total_length,
         self.head_length, self.index_length, self.rows, self.index_checksum,
         self.head_checksum) = FILE_HEADER.unpack_from(data, 0)
        (self.node_count, self.buffer_count, self.metadata_count, self.name_count, *strides, self.strings_length,
         self.field_count, self.value_count, self.row_order_token, self.checksum_room,
         zero) = DIRECTORY.unpack_from(data, 64)
        if magic != MAGIC:
            fail("H2", 0, "not a packed buffer")
        if major != 1:
            fail("H3", 8, f"major version {major}")
        if required:
            fail("H4", 16, f"required features {required:#x}")
        if self.kind not in (1, 2):
            fail("H5", 12, f"kind {self.kind}")
        if not 6 <= exponent <= 12:
            fail("H6", 13, f"alignment exponent {exponent}")
        self.alignment = a = 1 << exponent
        if self.head_length < 128 or self.head_length % a or self.head_length > self.total_length:
            fail("H7", 32, "head_length")
        if self.index_length % a or self.index_length > self.total_length - self.head_length:
            fail("H7", 40, "index_length")
        if self.total_length % a:
            fail("H7", 24, "total_length")
        if len(data) < self.total_length:
            fail("H8", len(data), f"{self.total_length} bytes belong here")
        if self.file and len(data) > self.total_length:
            fail("H9", self.total_length, "bytes after the end")
        for value, limit, at in ((self.head_length, "head_bytes", 32), (self.node_count, "nodes", 64),
                                 (self.buffer_count, "buffers", 68), (self.metadata_count, "metadata", 72),
                                 (self.rows, "rows", 48)):
            if value > self.limits[limit]:
                fail("H10", at, f"more than the limit of {limit}")
        if self.strings_length >= 2**32:
            fail("H10", 88, "strings_length")
        if crc32c(data[:60] + bytes(4) + data[64:self.head_length]) != self.head_checksum:
            fail("H11", 60, "head_checksum")
        for stride, (least, multiple, at) in zip(strides, ((64, 8, 80), (64, 8, 82), (32, 8, 84), (4, 4, 86))):
            if stride < least or stride % multiple:
                fail("H12", at, f"stride {stride}")
        if any(zero):
            fail("H13", 124, "not zero")
        self.strides, self.data_at = strides, self.head_length + self.index_length
        self.has_checksums = bool(optional & DATA_CHECKSUMS)
        self.place_tables()

    def place_tables(self):
        """H14, H15: the tables and strings fill the head."""
        node_stride, buffer_stride, metadata_stride, name_stride = self.strides
        self.nodes_at = 128
        self.buffers_at = self.nodes_at + self.node_count * node_stride
        self.metadata_at = self.buffers_at + self.buffer_count * buffer_stride
        self.names_at = self.metadata_at + self.metadata_count * metadata_stride
        self.strings_at = self.names_at + self.name_count * name_stride
        end = self.strings_at + self.strings_length
        if self.head_length != self.align(end):
            self.fail("H14", 32, f"the tables and strings need {self.align(end)}")
        self.check_zero("H15", end, self.head_length)
        self.strings = self.bytes[self.strings_at:end]

    def align(self, at):
        return at + -at % self.alignment

    def check_zero(self, rule, begin, end, node=None):
        part = self.bytes[begin:end]
        rest = part.lstrip(b"\0")
        if rest:
            self.fail(rule, begin + len(part) - len(rest), "not zero", node)

    def take_string(self, rule, record_at, field, offset, length, node=None):
        """Strings lie one after the other: the next one begins where the cursor stands."""
        if offset != self.strings_cursor or offset + length > self.strings_length:
            self.fail(rule, record_at + field, "a string that does not lie where the one before it ends", node)
        self.strings_cursor += length
        return self.strings[offset:offset + length]

    def check_utf8(self, rule, offset, data, node=None):
        try:
            utf8(data)
        except Stop as stop:
            self.fail(rule, self.strings_at + offset + stop.position, "not UTF-8", node)

    # -- N: section 4

    def check_nodes(self):
        self.nodes, self.fields, self.values, path = [], [], [], []  # path: the nodes that enclose the one in turn
        self.strings_cursor = self.buffers_taken = 0
        for index in range(self.node_count):
            node = Node(self, index, self.nodes_at + index * self.strides[0])
            while path and index > path[-1].index + path[-1].descendants:
                path.pop()
            node.parent = path[-1] if path else None
            siblings = node.parent.children if node.parent else None
            node.position = len(siblings) if siblings is not None else 0
            self.check_node(node, path)
            if siblings is None:
                siblings = self.values if node.scope else self.fields
            siblings.append(node)
            self.nodes.append(node)
            path.append(node)
        if self.buffers_taken != self.buffer_count:
            self.fail("N14", 68, "buffer records that no node takes")
        if self.field_count != len(self.fields):
            self.fail("N15", 96, "field_count")
        if self.value_count != len(self.values):
            self.fail("N15", 100, "value_count")

    def check_node(self, node, path):
        up = node.parent

        def fail(rule, field, message):
            self.fail(rule, node.at + field, message, node)

        if node.kind not in (LEAF, DICT, LIST):
            fail("N1", 22, f"kind {node.kind}")
        if node.scope > 1 or (up is None and node.scope == 0 and self.values) or (up and node.scope != up.scope):
            fail("N1", 23, f"scope {node.scope}")
        if node.parent_index != (up.index if up else U32_NONE):
            fail("N2", 0, "not the node that encloses it")
        if node.index + node.descendants > (up.index + up.descendants if up else self.node_count - 1):
            fail("N2", 4, "descendants beyond the parent's")
        if len(path) + 1 > self.limits["depth"]:
            fail("N3", 0, "nested too deeply")
        known, none = C_NULL <= node.codec <= C_OPAQUE, (0, 0, 0)
        if up and up.kind == LEAF and C_NULL <= up.codec <= C_OPAQUE:
            if up.codec not in (C_MEDIA, C_MEDIA_LIST) or node.kind != LEAF:
                fail("N4", 22, "not a child that the leaf may have")
        if node.kind != LEAF and (node.codec, *node.dtype, node.form, node.rank, node.logical_type) != (0,) * 7:
            fail("N5", 24, "codec, dtype, form, rank or logical type of a dict or list")
        if node.kind == LEAF and node.codec == 0:
            fail("N5", 24, "a leaf without codec")
        if node.codec == C_NULL and node.dtype != none or C_BYTES <= node.codec <= C_OPAQUE and node.dtype != U8:
            fail("N5", 24, "a dtype that the codec does not have")
        if node.zero:
            fail("N6", 44, "not zero")
        if any(node.zero2):
            fail("N6", 56, "not zero")
        if node.rank > 8 or node.rank and known and node.codec not in (C_NDARRAY, *RAGGED):
            fail("N7", 30, f"rank {node.rank}")
        if node.kind == LEAF and known and node.form not in forms_allowed(node):
            fail("N8", 27, f"form {node.form}")
        items = up is not None and up.codec == C_MEDIA_LIST
        if not items and node.rows != (up.rows if up else 1 if node.scope else self.rows):
            fail("N9", 48, f"{node.rows} rows")
        name = self.take_string("N10", node.at, 8, node.name_offset, node.name_length, node)
        dimensions = node.rank if node.codec == C_NDARRAY else 0
        shape = self.take_string("N10", node.at, 32, node.shape_offset, 8 * dimensions, node)
        parameter = self.take_string("N10", node.at, 36, node.parameter_offset, node.parameter_length, node)
        if up and up.kind == LIST and node.name_length:
            fail("N11", 12, "a child of a list has no name")
        self.check_utf8("N12", node.name_offset, name, node)
        self.check_utf8("N12", node.parameter_offset, parameter, node)
        node.parameter = parameter.decode()
        node.shape = struct.unpack(f"<{len(shape) // 8}Q", shape)
        elements = node.rows * math.prod(node.shape)
        if node.codec == C_NDARRAY and (elements >= 2**64 or byte_length(elements, node.dtype) >= 2**63):
            fail("N13", 32, "too many elements")
        if node.first_buffer != self.buffers_taken:
            fail("N14", 16, "not the next buffer record")
        if node.buffer_count > self.buffer_count - self.buffers_taken:
            fail("N14", 20, "more buffer records than there are")
        self.buffers_taken += node.buffer_count

    # -- B: sections 5 and 7

    def check_buffers(self):
        records = [Buffer(self, index, self.buffers_at + index * self.strides[1]) for index in range(self.buffer_count)]
        plain_data = sum(self.align(b.length) for b in records
                         if (b.storage, b.role, b.packing) == (STORED, DATA, PLAIN))
        self.buffers, self.used = [], {"index": [], "data": [], "packed data": []}
        self.cursors = {"index": self.head_length, "data": self.data_at, "packed data": self.data_at + plain_data}
        if self.has_checksums:
            chunks = -(-(self.total_length - self.data_at) // CHECKSUM_CHUNK)
            self.used["index"].append((self.head_length, 4 * chunks))
            self.cursors["index"] = self.align(self.head_length + 4 * chunks)
        self.cursors["index"] += self.checksum_room * self.alignment
        for node in self.nodes:
            for b in records[node.first_buffer:node.first_buffer + node.buffer_count]:
                self.check_buffer(node, b)
                self.buffers.append(b)
                node.buffers.append(b)
        if self.cursors["index"] != self.data_at:
            self.fail("B12", 40, "index_length is not where the index ends")
        if self.cursors["packed data"] != self.total_length:
            self.fail("B12", 24, "total_length is not where the data ends")
        for node in self.nodes:
            self.set_unreadable(node)
            self.check_layout(node)

    def check_buffer(self, node, b):
        def fail(rule, field, message):
            self.fail(rule, b.at + field, message, node)

        if b.node_index != node.index:
            fail("B1", 0, "not the node that lists it")
        if node.buffers and (b.role, b.dim) <= (node.buffers[-1].role, node.buffers[-1].dim):
            fail("B1", 4, "role and dim do not ascend")
        if not STORED <= b.storage <= ALIAS:
            fail("B2", 6, f"storage {b.storage}")
        if b.dim and (b.role != SHAPE) or b.role == SHAPE and b.dim >= node.rank:
            fail("B2", 5, f"dim {b.dim}")
        if b.role == DATA:
            if b.dtype != node.dtype or byte_length(8, b.dtype) == 0:
                fail("B3", 8, "dtype")
        elif b.role in ROLE_DTYPE and b.dtype != ROLE_DTYPE[b.role]:
            fail("B3", 8, "dtype")
        length = byte_length(b.count, b.dtype)
        if length >= 2**63:
            fail("B4", 16, "too many elements")
        self.check_unused(node, b, length)
        if b.storage == INLINE and length > 16:
            fail("B6", 16, "too long to be inline")
        if b.packing and b.storage not in (STORED, ALIAS):
            fail("B6", 7, f"packing {b.packing}")
        if b.storage == CONSTANT and (b.dtype[1] * b.dtype[2] == 1 or b.dtype == (BOOL, 8, 1)) and b.value[0] > 1:
            fail("B7", 40, "a bit or bool that is neither 0 nor 1")
        if b.storage == SEQUENCE:
            if b.dtype not in (U64, (INT, 64, 1)):
                fail("B8", 8, "a sequence of another dtype")
            start, step = b.progression()
            low, high = (-2**63, 2**63) if b.dtype[0] == INT else (0, 2**64)
            if b.count and not low <= start + (b.count - 1) * step < high:
                fail("B8", 40, "a sequence that overflows")
        if b.storage == ALIAS:
            of = self.buffers[b.alias_of] if b.alias_of < b.index else None
            same = ("section", "dtype", "packing", "count", "offset", "length", "value", "headers_offset")
            if of is None or of.storage != STORED or any(getattr(b, key) != getattr(of, key) for key in same):
                fail("B9", 12, "not an earlier stored record, or not the same")
        if b.storage == STORED:
            if b.packing == 0 and b.length != length:
                fail("B10", 32, f"{length} bytes belong here")
            if b.packing:  # ahead of what follows in the index
                headers = 16 * -(-length // BLOCK_BYTES)
                self.take_range("index", b, "headers_offset", 56, b.headers_offset, headers, node)
            walk = "index" if b.role != DATA else "packed data" if b.packing else "data"
            self.take_range(walk, b, "offset", 24, b.offset, b.length, node)

    def check_unused(self, node, b, length):
        """B5 and B14: what the storage and the packing leave unused is zero."""
        has_place = b.storage in (STORED, ALIAS)
        packed = b.packing and has_place
        constant = min(byte_length(1, b.dtype), 16)
        used_value = {STORED: 0, ALIAS: 0, INLINE: min(length, 16), CONSTANT: constant, SEQUENCE: 16}[b.storage]
        for wrong, field in ((b.storage != ALIAS and b.alias_of, 12), (not has_place and b.offset, 24),
                             (not has_place and b.length, 32), (not packed and any(b.value[used_value:]), 40),
                             (not packed and b.headers_offset, 56)):
            if wrong:
                self.fail("B5", b.at + field, "not zero", node)
        if packed and b.packing == BLOCKS:
            read_in_place = b.role == DATA and C_BYTES <= node.codec <= C_OPAQUE
            for wrong, field in ((read_in_place, 7), (not packable(b.dtype), 8), (b.count == 0, 16),
                                 (b.length % 64, 32), (any(b.value), 40)):
                if wrong:
                    self.fail("B14", b.at + field, "not of a buffer that is packed in blocks", node)

    def take_range(self, walk, b, what, field, offset, length, node):
        if offset != self.cursors[walk] or offset + length > (self.data_at if walk == "index" else self.total_length):
            self.fail("B11", b.at + field, f"{what} is not where the {walk} stands", node)
        self.used[walk].append((offset, length))
        self.cursors[walk] = self.align(offset + length)

    def set_unreadable(self, node):
        if node.kind == LEAF and not C_NULL <= node.codec <= C_OPAQUE:
            node.unreadable = "UNSUPPORTED_CODEC"
        elif node.kind == LEAF and any(not DATA <= b.role <= PREFIX_LENGTH for b in node.buffers):
            node.unreadable = "UNSUPPORTED_ROLE"
        elif any(b.unreadable for b in node.buffers):
            node.unreadable = "UNSUPPORTED_PACKING"
        elif node.kind == LEAF and node.codec != C_NULL and node.dtype not in DTYPES:
            node.unreadable = "UNSUPPORTED_DTYPE"

    def check_layout(self, node):
        """B13."""
        opaque = node.unreadable in ("UNSUPPORTED_CODEC", "UNSUPPORTED_ROLE")
        rows, index = node.rows, node.buffer(ROW_INDEX)
        expect = {(VALIDITY, 0): rows, (MISSING, 0): rows}  # the buffers a node may have, with their counts (None: any)
        must, by = set(), None  # by: with a row_index, the record whose count says how many stored rows there are
        if node.kind == LEAF and node.codec == C_NULL and not opaque:
            del expect[VALIDITY, 0]
        if node.kind == LIST:
            expect[LENGTHS, 0] = rows
            must = {(LENGTHS, 0)}
        elif node.kind == LEAF and not opaque and node.codec != C_NULL:
            stored = stored_rows(node)
            by = index and node.buffer({C_NDARRAY: DATA, C_MEDIA_LIST: ITEM_OFFSETS}.get(node.codec, OFFSETS))
            expect |= {(ROW_INDEX, 0): rows, (DATA, 0): None}
            must = {(DATA, 0)}
            if node.codec == C_NDARRAY:
                expect[DATA, 0] = stored * math.prod(node.shape)
                if node.rank == 0:
                    expect[TYPES, 0] = stored
            else:
                expect[OFFSETS, 0] = stored + 1
                must.add((OFFSETS, 0))
            if node.codec in RAGGED:
                expect |= {(TYPES, 0): stored, (NDIMS, 0): stored}
                if node.rank >= 2:
                    expect |= {(SHAPE, dim): stored for dim in range(node.rank)}
                    must |= {(SHAPE, dim) for dim in range(node.rank)}
                if node.rank == 1 and not node.buffer(NDIMS) and not node.buffer(TYPES):
                    expect |= {(PREFIX_ROW, 0): stored, (PREFIX_LENGTH, 0): stored}
                    if node.buffer(PREFIX_ROW) or node.buffer(PREFIX_LENGTH):
                        must |= {(PREFIX_ROW, 0), (PREFIX_LENGTH, 0)}
            if node.codec == C_MEDIA_LIST:
                offsets = node.buffer(OFFSETS)
                items = offsets.count - 1 if offsets else 0
                if offsets and (items < 0 or any(leaf.rows != items for leaf in node.children)):
                    self.fail("B13", offsets.at, "not one offset more than items", node)
                expect |= {(OFFSETS, 0): None, (ITEM_OFFSETS, 0): stored + 1, (TYPES, 0): items}
                must.add((ITEM_OFFSETS, 0))
        for b in node.buffers:
            key = b.role, b.dim
            if key not in expect and not opaque:
                self.fail("B13", b.at, f"a buffer of role {b.role} does not belong here", node)
            if expect.get(key) is not None and b.count != expect[key]:
                self.fail("B13", b.at, f"count {b.count}, {expect[key]} belong here", node)
            if b is by and (stored > rows or node.codec == C_NDARRAY and not math.prod(node.shape)):
                self.fail("B13", b.at, f"{stored} stored rows for {rows} rows", node)
        missing = must - {(b.role, b.dim) for b in node.buffers}
        if missing:
            self.fail("B13", node.at + 16, f"no buffer of role {min(missing)[0]}", node)

    # -- M, S: section 6

    def check_metadata(self):
        self.metadata, before = [], None
        for index in range(self.metadata_count):
            at = self.metadata_at + index * self.strides[2]
            record = struct.unpack_from("<IIIII12s", self.bytes, at)
            node, key_offset, key_length, value_offset, value_length, zero = record
            if node >= self.node_count and node != U32_NONE:
                self.fail("M1", at, f"there is no node {node}")
            this = node, self.strings[key_offset:key_offset + key_length]
            if before is not None and this <= before:
                if node < before[0] or key_offset + key_length <= self.strings_length:
                    self.fail("M2", at + 4, "records do not ascend")
            before = this
            key = self.take_string("M3", at, 4, key_offset, key_length)
            value = self.take_string("M3", at, 12, value_offset, value_length)
            self.check_utf8("M4", key_offset, key)
            self.check_utf8("M4", value_offset, value)
            if any(zero):
                self.fail("M5", at + 20, "not zero")
            self.metadata.append((node, key.decode(), value.decode()))
        if self.strings_cursor != self.strings_length:
            self.fail("M3", 88, "bytes after the last string")

    def check_names(self):
        def named(node):
            return node.parent is None or node.parent.kind != LIST

        if self.name_count != sum(map(named, self.nodes)):
            self.fail("S1", 76, "not one entry for each node that has a name")
        before = None
        for i in range(self.name_count):
            at = self.names_at + i * self.strides[3]
            index, = struct.unpack_from("<I", self.bytes, at)
            if index >= self.node_count or not named(self.nodes[index]):
                self.fail("S1", at, "not a node that has a name")
            node = self.nodes[index]
            this = node.parent_index, node.scope, node.name
            if before is not None and this < before:
                self.fail("S2", at, "names do not ascend", node)
            if this == before:
                self.fail("S3", at, "a name that a sibling has already", node)
            before = this

    # -- I: sections 7, 9 and 10

    def check_padding(self, rule, used, begin, end):
        for offset, length in used:
            self.check_zero(rule, begin, offset)
            begin = offset + length
        self.check_zero(rule, begin, end)

    def check_index(self):
        if crc32c(self.bytes[self.head_length:self.data_at]) != self.index_checksum:
            self.fail("I1", 56, "index_checksum")
        self.check_padding("I2", self.used["index"], self.head_length, self.data_at)
        for b in self.buffers:
            if b.storage == STORED and b.packing == BLOCKS:
                self.check_blocks(b)
                if b.role != DATA:
                    self.check_payloads("I17", b)
        self.walked = 0
        for node in self.nodes:
            self.check_walked(node, "index")
            self.check_masks(node)
            if node.kind == LIST and not node.unreadable:
                self.check_lengths(node)
            elif node.kind == LEAF and node.unreadable in (None, "UNSUPPORTED_DTYPE", "UNSUPPORTED_PACKING"):
                self.check_leaf(node)

    def check_blocks(self, b):
        """I15 and I16, block by block: a payload ends where the next header, or the length, says."""
        node, blocks = self.nodes[b.node_index], b.blocks
        for block, following in zip(blocks, blocks[1:] + [None]):
            field = block.wrong_field()
            if field is not None:
                self.fail("I15", block.at + field, "not what the mode allows", node)
            if block is blocks[0] and block.place:
                self.fail("I16", block.at + 8, f"place {block.place} of the first block", node)
            end, at = (64 * following.place, following.at + 8) if following else (b.length, b.at + 32)
            length = block.length()
            least = 64 * block.place + (length or 0)
            if end < least or end > b.length or length is not None and end != least:
                self.fail("I16", at, f"a payload from {64 * block.place} to {end}", node)

    def check_payloads(self, rule, b):
        for block in b.blocks:
            wrong = block.wrong()
            if wrong:
                self.fail(rule, block.begin, wrong, self.nodes[b.node_index])

    def check_walked(self, node, section):
        """D9: what the aliases and the packed buffers of one section add to the bytes that are walked, whatever is
        stored of them."""
        for b in node.buffers:
            if (b.storage == ALIAS or b.packing == BLOCKS) and b.counted and b.section == section:
                self.walked += byte_length(b.count, b.dtype)
                if self.walked > self.limits["decoded_bytes"]:
                    self.fail("D9", b.at + 16, "aliases and packed buffers beyond the limit of decoded_bytes", node)

    def check_masks(self, node):
        validity, missing = node.buffer(VALIDITY), node.buffer(MISSING)
        for mask in (validity, missing):
            if mask and not mask.unreadable and not mask.computed and mask.count % 8:
                last = mask.count // 8
                if mask.byte(last) >> mask.count % 8:
                    self.fail("I3", mask.where(last), "bits after the last row", node)
        null_codec = node.kind == LEAF and node.codec == C_NULL
        if missing and not validity and not null_codec:
            self.fail("I4", missing.at, "a missing mask without validity", node)
        if self.readable(missing, validity) and missing and validity:
            for row in range(rows_to_check(node.rows, (missing, validity))):
                if missing[row] and validity[row]:
                    self.fail("I4", missing.at, f"row {row} is missing, and a value", node)
        up = node.parent
        if up is None or up.kind == LEAF or not self.readable(missing, validity, up.buffer(VALIDITY)):
            return
        if up.kind == LIST or up.buffer(VALIDITY):
            self.check_walked(up, "index")  # its masks and lengths are walked again for each child
        for row in range(rows_to_check(node.rows, (missing, validity, up.buffer(VALIDITY)))):
            if not present(up, row) and (present(node, row) or missing and missing[row]):
                at = validity.at if validity else node.at
                self.fail("I5", at, f"row {row} is absent in the parent and not null here", node)
        lengths = up.buffer(LENGTHS)
        if up.kind != LIST or not self.readable(lengths):
            return
        buffers = missing, validity, up.buffer(VALIDITY), lengths
        for row in range(rows_to_check(node.rows, buffers, len(up.children) + 16)):
            shorter = present(up, row) and lengths[row] <= node.position
            if shorter != bool(missing and missing[row]):
                at = missing.at if missing else node.at
                self.fail("I6", at, f"row {row} is missing and should not be, or the other way round", node)

    @staticmethod
    def readable(*buffers):
        return not any(b is not None and b.unreadable for b in buffers)

    def check_lengths(self, node):
        lengths, validity = node.buffer(LENGTHS), node.buffer(VALIDITY)
        rows = range(rows_to_check(node.rows, (lengths, validity), len(node.children) + 16))
        for row in rows:
            if lengths[row] and not present(node, row):
                self.fail("I8", lengths.where_element(row), "the length of an absent list", node)
        for row in rows:
            if lengths[row] > len(node.children):
                at = lengths.where_element(row)
                self.fail("I9", at, f"length {lengths[row]} of {len(node.children)} children", node)

    def check_offsets(self, node, offsets, end):
        def fail(i):
            self.fail("I7", offsets.where_element(i), f"offset {offsets[i]} of {end}", node)

        if offsets.storage == SEQUENCE:
            start, step = offsets.progression()
            if start or step < 0 and offsets.count > 1 or offsets[offsets.count - 1] != end:
                fail(0)
        elif offsets.storage == CONSTANT:
            if offsets[0] or end:
                fail(0)
        else:
            before = 0
            for i in range(offsets.count):
                if offsets[i] < before or i == 0 and offsets[0]:
                    fail(i)
                before = offsets[i]
            if before != end:
                fail(offsets.count - 1)

    def check_leaf(self, node):
        data, offsets, item_offsets = node.buffer(DATA), node.buffer(OFFSETS), node.buffer(ITEM_OFFSETS)
        types, stored = node.buffer(TYPES), stored_rows(node)
        validity = None if node.buffer(ROW_INDEX) else node.buffer(VALIDITY)  # with a row_index all stored are present
        if offsets and self.readable(offsets):
            self.check_offsets(node, offsets, data.count)
        if item_offsets and self.readable(item_offsets):
            self.check_offsets(node, item_offsets, offsets.count - 1)
        extents = item_offsets or offsets
        if extents and self.readable(extents, validity):
            for row in range(rows_to_check(stored, (extents, validity))):
                if not stored_present(node, row) and extents[row] != extents[row + 1]:
                    self.fail("I8", extents.where_element(row + 1), "the extent of an absent cell", node, row)
        if node.codec in RAGGED:
            self.check_dimensions(node, stored, offsets, validity)
        if types and self.readable(types, validity):
            per_row = node.codec != C_MEDIA_LIST
            for i in range(rows_to_check(types.count, (types, validity) if per_row else (types,))):
                if types[i] and (per_row and not stored_present(node, i) or not type_allowed(node, types[i])):
                    self.fail("I12", types.where_element(i), f"type {types[i]:#x}", node, i)
        self.check_row_index(node, stored)
        self.check_prefixes(node, stored, offsets, validity)

    def check_dimensions(self, node, stored, offsets, validity):
        """I10, I11."""
        ndims = node.buffer(NDIMS)
        shape = [node.buffer(SHAPE, dim) for dim in range(node.rank)] if node.rank >= 2 else []
        if not self.readable(validity, ndims, *shape):
            return
        for row in range(rows_to_check(stored, (validity, ndims, *shape))):
            here = stored_present(node, row)
            if ndims and ndims[row] > (node.rank if here else 0):
                self.fail("I10", ndims.where_element(row), f"{ndims[row]} dimensions", node, row)
            dims = (ndims[row] if ndims else node.rank) if here else 0
            for dim in shape[dims:]:
                if dim[row]:
                    self.fail("I10", dim.where_element(row), "a dimension that the cell does not have", node, row)
        if not self.readable(offsets):
            return
        for row in range(rows_to_check(stored, (validity, ndims, offsets, *shape))):
            if stored_present(node, row) and not self.extent_fits(node, row, offsets, ndims, shape):
                at = offsets.where_element(row + 1)
                self.fail("I11", at, "an extent that is not the product of the dimensions", node, row)

    def check_row_index(self, node, stored):
        """I13."""
        index, validity = node.buffer(ROW_INDEX), node.buffer(VALIDITY)
        if not index or not node.rows or not self.readable(index, validity):
            return
        rows = range(rows_to_check(node.rows, (index, validity)))
        if len(rows) < node.rows:  # both are computed: the first two rows decide, or where a sequence reaches `stored`
            (start, step), rows = index.affine, [0, 1]
            if step > 0 and start < stored <= start + (node.rows - 1) * step:
                rows.append(-(-(stored - start) // step))
        for row in rows:
            if index[row] >= stored if present(node, row) else index[row]:
                self.fail("I13", index.where_element(row), f"row_index {index[row]} of {stored} stored rows", node, row)

    def check_prefixes(self, node, stored, offsets, validity):
        """I14."""
        prefix_row, prefix_length = node.buffer(PREFIX_ROW), node.buffer(PREFIX_LENGTH)
        if not prefix_length or not stored or not self.readable(prefix_row, prefix_length, offsets, validity):
            return
        rows = range(rows_to_check(stored, (prefix_row, prefix_length, offsets, validity)))
        if len(rows) < stored:
            # All are computed, so every extent is the same. Nearly always the first rows decide: a constant
            # prefix_length other than 0 leaves no leader. A sequence has at most one 0, so one leader at most, to which
            # all others refer: what is wrong then lies at the leader itself or where the sequence passes its extent.
            (start, step), extent = prefix_length.affine, offsets[1] - offsets[0]
            turns = [-start // step, (extent - start) // step + 1] if step else []
            rows = sorted({0, 1, 2, 3} | {row for row in turns if 0 <= row < stored})
        for row in rows:
            length, leader = prefix_length[row], prefix_row[row]
            wrong = None
            if length and not stored_present(node, row):
                wrong = prefix_length, "a prefix of an absent cell"
            elif not length and leader:
                wrong = prefix_row, f"refers to stored row {leader} without a prefix"
            elif length and leader >= stored:
                wrong = prefix_row, f"refers to stored row {leader} of {stored}"
            elif length and prefix_length[leader]:
                wrong = prefix_row, f"refers to stored row {leader}, which refers to another"
            elif length > offsets[leader + 1] - offsets[leader]:
                wrong = prefix_length, f"a prefix of {length} elements, which stored row {leader} does not have"
            if wrong:
                self.fail("I14", wrong[0].where_element(row), wrong[1], node, row)

    @staticmethod
    def extent_fits(node, row, offsets, ndims, shape):
        dims = ndims[row] if ndims else node.rank
        extent = offsets[row + 1] - offsets[row]
        if dims and not shape:  # rank 1: one dimension, of any length
            return True
        return extent == math.prod(dim[row] for dim in shape[:dims])

    # -- D

    def check_data(self):
        if self.has_checksums:
            for i, at in enumerate(range(self.data_at, self.total_length, CHECKSUM_CHUNK)):
                stored, = struct.unpack_from("<I", self.bytes, self.head_length + 4 * i)
                if crc32c(self.bytes[at:min(at + CHECKSUM_CHUNK, self.total_length)]) != stored:
                    self.fail("D1", at, "data checksum")
        self.check_padding("D2", self.used["data"] + self.used["packed data"], self.data_at, self.total_length)
        for b in self.buffers:
            if b.storage == STORED and b.packing == BLOCKS and b.role == DATA:
                self.check_payloads("D10", b)
        for node in self.nodes:
            for b in node.buffers:  # D9 of the buffers comes first: what follows may then unpack
                if b.counted and byte_length(b.count, b.dtype) > self.limits["decoded_bytes"]:
                    self.fail("D9", b.at + 16, "more than the limit of decoded_bytes", node)
            self.check_walked(node, "data")
            known = node.unreadable not in ("UNSUPPORTED_CODEC", "UNSUPPORTED_ROLE")
            if node.kind == LEAF and known and node.codec != C_NULL:
                self.check_leaf_data(node)

    def check_leaf_data(self, node):
        data, offsets, types, stored = node.buffer(DATA), node.buffer(OFFSETS), node.buffer(TYPES), stored_rows(node)
        validity = None if node.buffer(ROW_INDEX) else node.buffer(VALIDITY)
        if not self.readable(data) or node.dtype not in DTYPES:
            return
        if node.dtype == (BOOL, 8, 1) and not data.computed:
            raw = data.raw(0, data.count)
            rest = raw.lstrip(b"\0\1")
            if rest:
                self.fail("D3", data.where(len(raw) - len(rest)), "a bool that is neither 0 nor 1", node)
        each = math.prod(node.shape)  # elements of an ndarray cell
        if node.codec == C_NDARRAY and validity and self.readable(validity):
            for row in range(rows_to_check(stored, (data, validity))):
                if not present(node, row):
                    self.check_absent_zero(node, data, row * each, each)
        if types and node.codec != C_MEDIA_LIST and self.readable(types, offsets):
            for row in range(rows_to_check(stored, (data, offsets, types))):
                number = types[row] & 15
                first, count = (offsets[row], offsets[row + 1] - offsets[row]) if offsets else (row, 1)
                for i in range(first, first + (min(count, 3) if data.computed else count) if number else first):
                    if not exact(data.raw(i, 1), node.dtype, number):
                        what = "bool" if number == TYPE_BOOL else "int"
                        self.fail("D5", data.where_element(i), f"not an exact {what}", node, row)
        if node.codec in (C_UTF8, C_JSON, C_MSGPACK) and self.readable(offsets, validity):
            for row in range(rows_to_check(stored, (data, offsets, validity))):
                if stored_present(node, row):
                    self.check_cell(node, data, offsets[row], offsets[row + 1] - offsets[row])

    def check_absent_zero(self, node, data, first, count):
        rest = (raw := data.raw(first, min(count, 2) if data.computed else count)).lstrip(b"\0")
        if rest:
            size, skipped = data.dtype[1] // 8, len(raw) - len(rest)
            at = data.where(0 if data.computed else first * size + skipped)
            if data.storage == CONSTANT:
                at += skipped % size
            self.fail("D4", at, "an absent cell that is not zero", node)

    def check_cell(self, node, data, first, length):
        if node.codec == C_UTF8:
            rule, cell = "D6", data.raw(first, min(length, 4) if data.computed else length)
        else:
            if length > self.limits["cell_bytes"]:
                self.fail("D9", data.where(first), "more than the limit of cell_bytes", node)
            rule, cell = "D7" if node.codec == C_JSON else "D8", data.raw(first, length)
        try:
            if node.codec == C_UTF8:
                utf8(cell)
            else:
                (json_cell if node.codec == C_JSON else msgpack_cell)(cell, self.limits["cell_depth"])
        except Stop as stop:
            if stop.too_deep:
                self.fail("D9", data.where(first), stop.message, node)
            self.fail(rule, data.where(first + stop.position), stop.message, node)

    # -- 23, 24. What a manifest lists; schema text and fingerprint

    def fragments(self):
        """What a manifest lists."""
        return listed_fragments(self)

    def schema(self):
        tops = sorted(self.fields, key=lambda node: node.name) + sorted(self.values, key=lambda node: node.name)
        lines = [line for top in tops for line, _ in schema_lines(top)]
        return "".join(line + "\n" for line in ['{"packbuf_schema":1}', *lines])

    def fingerprint(self):
        return hashlib.sha256(self.schema().encode()).hexdigest()[:32]

    # -- 22. Tagged JSON of the whole

    def to_json(self):
        self.verify("full")
        shown = self.limits["shown"] - sum(node.rows + 1 for node in self.nodes)
        for b in self.buffers:
            shown -= byte_length(b.count, b.dtype) if not b.unreadable else 0
            if shown < 0:
                break
        if shown < 0:
            self.fail("D9", 48, "more than this reader prints")
        self.shown = shown
        fields = ",".join(quote(node.name.decode()) + ":" + list_text(self.cell(node, row) for row in range(self.rows))
                          for node in self.fields)
        values = ",".join(quote(node.name.decode()) + ":" + self.cell(node, 0) for node in self.values)
        metadata = {}
        for index, key, value in sorted(self.metadata, key=lambda m: m[0] if m[0] != U32_NONE else -1):
            metadata.setdefault(index, []).append(f"{quote(key)}:{quote(value)}")
        metadata = ",".join(quote(self.metadata_path(index)) + ":{" + ",".join(pairs) + "}"
                            for index, pairs in metadata.items())
        return f'{{"rows":{self.rows},"fields":{{{fields}}},"values":{{{values}}},"metadata":{{{metadata}}}}}'

    def metadata_path(self, index):
        return "" if index == U32_NONE else "values:" * self.nodes[index].scope + self.nodes[index].path

    def cell(self, node, row):
        if node.unreadable:
            return f'{{"$unreadable":"{node.unreadable}"}}'
        if not present(node, row):
            return MISSING_TEXT if is_missing(node, row) else "null"
        if node.kind == DICT:
            shown = [child for child in node.children if child.unreadable or not is_missing(child, row)]
            return dict_text([text for child in shown for text in (quote(child.name.decode()), self.cell(child, row))])
        if node.kind == LIST:
            return list_text([self.cell(child, row) for child in node.children[:node.buffer(LENGTHS)[row]]])
        text = self.leaf_cell(node, row, stored_row(node, row))
        if node.buffer(ROW_INDEX) or node.buffer(PREFIX_ROW):  # more may be shown than is there
            self.shown -= len(text)
            if self.shown < 0:
                self.fail("D9", 48, "more than this reader prints", node)
        return text

    def leaf_cell(self, node, row, stored):
        """The cell of a row, whose content is this stored row."""
        data, offsets = node.buffer(DATA), node.buffer(OFFSETS)
        if node.codec == C_NDARRAY:
            each = math.prod(node.shape)
            return self.numbers(node, stored, node.shape, data.raw(stored * each, each))
        if node.codec in RAGGED:
            raw, count = self.elements(node, stored)
            ndims = node.buffer(NDIMS)[stored] if node.buffer(NDIMS) else node.rank
            shape = [node.buffer(SHAPE, dim)[stored] for dim in range(ndims)] if node.rank >= 2 else [count] * ndims
            return self.numbers(node, stored, shape, raw)
        if node.codec == C_MEDIA_LIST:
            items = node.buffer(ITEM_OFFSETS)
            return list_text([self.item(node, data, offsets, i) for i in range(items[stored], items[stored + 1])])
        raw = data.raw(offsets[stored], offsets[stored + 1] - offsets[stored])
        if node.codec == C_BYTES:
            return bytes_text(raw)
        if node.codec == C_MEDIA:
            return self.media(node, row, raw)
        if node.codec == C_UTF8:
            return quote(raw.decode())
        if node.codec == C_OPAQUE:
            return opaque_text(node.parameter, raw)
        return (json_cell if node.codec == C_JSON else msgpack_cell)(raw, self.limits["cell_depth"])

    @staticmethod
    def elements(node, stored):
        """The elements of a stored row of a ragged codec, its prefix first, and how many they are."""
        data, offsets, prefix_length = node.buffer(DATA), node.buffer(OFFSETS), node.buffer(PREFIX_LENGTH)
        own = offsets[stored + 1] - offsets[stored]
        shared = prefix_length[stored] if prefix_length else 0
        prefix = data.raw(offsets[node.buffer(PREFIX_ROW)[stored]], shared) if shared else b""
        return prefix + data.raw(offsets[stored], own), shared + own

    def media(self, node, row, raw):
        leaves = {leaf.name.decode(): leaf for leaf in node.children}
        attributes = []
        for name, what in ATTRIBUTES.items():
            leaf = leaves.get(name)
            if not leaf or leaf.unreadable or (leaf.codec, leaf.dtype, leaf.form, leaf.rank) != (*what, NATURAL, 0):
                continue
            if not present(leaf, row):
                continue
            text = self.cell(leaf, row)
            if leaf.codec == C_NDARRAY:  # whatever types say
                text = number_text(leaf.buffer(DATA).raw(stored_row(leaf, row), 1), leaf.dtype, 0)
            if what != _INT64 or int(text) >= 0:  # a negative integer is as absent
                attributes.append((name, text))
        return media_text(attributes, raw)

    def item(self, node, data, offsets, i):
        types = node.buffer(TYPES)
        raw = data.raw(offsets[i], offsets[i + 1] - offsets[i])
        form = (types[i] >> 4 if types else 0) or node.form
        return bytes_text(raw) if form == F_BYTES else self.media(node, i, raw)

    def numbers(self, node, stored, shape, raw):
        types = node.buffer(TYPES)
        value = types[stored] if types else 0
        form = value >> 4 or node.form
        if form in FORM_NAMES:
            return tensor_text(form, node.dtype, shape, raw)
        size = node.dtype[1] // 8
        items = [number_text(raw[i:i + size], node.dtype, value & 15) for i in range(0, len(raw), size)]
        for dim, length in reversed(list(enumerate(shape))):
            lists = math.prod(shape[:dim])  # how many there are of this dimension
            self.shown -= lists
            if self.shown < 0:
                self.fail("D9", 48, "more than this reader prints", node)
            items = [list_text(items[i * length:(i + 1) * length]) for i in range(lists)]
        return items[0]


def number_text(raw, dtype, number):
    code, bits, _ = dtype
    if code == COMPLEX:
        return tensor_text(F_SCALAR, dtype, (), raw)
    if code == BOOL or number == TYPE_BOOL:
        return "true" if any(raw) else "false"
    if code in (INT, UINT):
        return str(int.from_bytes(raw, "little", signed=code == INT))
    wide = widen(int.from_bytes(raw, "little"), code, bits)
    return str(int(struct.unpack("<d", wide.to_bytes(8, "little"))[0])) if number == TYPE_INT else float_text(wide)


# ---- 16. Equality ----------------------------------------------------------------------------------------------------

JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},]|[^][{},"]+')


def ordered(text):
    """Tagged JSON with the pairs of each dict in order: values that are equal have one such text."""
    open_, closed = [[""]], []  # the items so far of each list and object that is open; those of the list closed last
    for token in JSON_TOKEN.findall(text):
        if token in ("[", "{"):
            open_.append([""])
        elif token == ",":
            open_[-1].append("")
        elif token == "]":
            closed = open_.pop()
            open_[-1][-1] += list_text(closed)
        elif token == "}":
            pairs = open_.pop()
            if len(pairs) == 1 and pairs[0].startswith('"$dict":'):
                pairs = ['"$dict":' + list_text(sorted(closed))]
            open_[-1][-1] += "{" + ",".join(sorted(pairs)) + "}"
        else:
            open_[-1][-1] += token
    return open_[0][0]


# ---- 23. Fragments and manifests -------------------------------------------------------------------------------------

MANIFEST = {"key": None, "length": U64, "head_length": U64, "first_row": U64, "rows": U64,
            "head_checksum": (UINT, 32, 1), "appends": U8}
APPENDS_ROWS, APPENDS_FIELDS = 0, 1
MISSING_TEXT = '{"$missing":true}'
Part = collections.namedtuple("Part", "fragment node first_row rows")  # row 0 of the node is row first_row of the whole
Place = collections.namedtuple("Place", "fragment first_row rows appends token")  # of a fragment


def listed_field(packed, name, dtype):
    """A field that a manifest has: text, or plain numbers of this dtype, and no cell null or missing."""
    node = next((node for node in packed.fields if node.name.decode() == name), None)
    if node is not None and node.unreadable:
        refuse(node.unreadable, "a field that this reader cannot read", name)
    codec = C_NDARRAY if dtype else C_UTF8
    if node is None or (node.codec, node.dtype, node.form, node.rank) != (codec, dtype or U8, NATURAL, 0):
        refuse("BAD_MANIFEST", "a field that is absent, or of another type", name)
    if node.buffer(TYPES):
        refuse("BAD_MANIFEST", "numbers that have types of their own", name)
    for row in range(rows_to_check(node.rows, (node.buffer(VALIDITY),))):
        if not present(node, row):
            refuse("BAD_MANIFEST", "a null cell", name, fragment=row)
    return node


def rows_after(listed, rows):
    """The rows of the whole after a fragment listed so, where before it they are `rows`; None where it may not be."""
    end = listed["first_row"] + listed["rows"]
    if not 128 <= listed["head_length"] <= listed["length"] or end > 2**48:
        return None
    if listed["appends"] == APPENDS_FIELDS:
        return rows if end <= rows else None
    return end if listed["appends"] == APPENDS_ROWS and listed["first_row"] == rows else None


def listed_fragments(packed):
    """What a manifest lists, as far as the list alone tells whether it is one."""
    if packed.kind != 2:
        refuse("WRONG_TYPE", "no manifest")
    packed.verify("full")
    fields = {name: listed_field(packed, name, dtype) for name, dtype in MANIFEST.items()}
    if packed.rows > packed.limits["shown"]:
        packed.fail("D9", 48, "more fragments than this reader lists")

    def cell(node, stored):
        data, offsets = node.buffer(DATA), node.buffer(OFFSETS)
        if offsets:
            return data.raw(offsets[stored], offsets[stored + 1] - offsets[stored]).decode()
        return int.from_bytes(data.raw(stored, 1), "little")

    rows, out = 0, []
    for row in range(packed.rows):
        out.append({name: cell(node, stored_row(node, row)) for name, node in fields.items()})
        rows = rows_after(out[-1], rows)
        if rows is None:
            refuse("BAD_MANIFEST", "rows or lengths that do not follow from those before", fragment=row)
    return out


@contextlib.contextmanager
def of_fragment(number):
    """What is refused here is this fragment's."""
    try:
        yield
    except PackbufError as error:
        error.fragment = number
        raise


class Joined:
    """Fragments, in order, read as one batch. listed: what a manifest lists of them; without it all append rows. widen:
    the parts of a field may differ in type, and rows may lack it. first: of batch values that differ, the first
    fragment's is read."""

    def __init__(self, fragments, listed=None, widen=False, first=False, limits=None):
        if listed is not None and len(listed) != len(fragments):
            refuse("INVALID_ARGUMENT", f"{len(fragments)} fragments, of which {len(listed)} are listed")
        self.widen, self.first, self.rows, self.verified = widen, first, 0, set()
        self.fields, self.nodes = {}, {}  # name -> its parts; name -> [fragment, node] of the batch values
        places = [self.add(i, bytes_, listed and listed[i], limits) for i, bytes_ in enumerate(fragments)]
        self.owners = [place for place in places if place.appends == APPENDS_ROWS and place.rows]  # in order of rows
        self.check_tokens(places)
        for name, parts in self.fields.items():
            parts[:] = sorted((part for part in parts if part.rows), key=lambda part: part.first_row)
            self.check_field(name, parts)

    def add(self, number, bytes_, listed, limits):
        """One fragment by itself, and against what is listed of it: FRAGMENT_MISMATCH, BAD_MANIFEST."""
        with of_fragment(number):
            packed = Packed(bytes_, file=False, limits=limits)
            own = {"length": packed.total_length, "head_length": packed.data_at, "rows": packed.rows,
                   "head_checksum": packed.head_checksum}
            if packed.kind != 1 or listed and any(listed[name] != value for name, value in own.items()):
                refuse("FRAGMENT_MISMATCH", "not the fragment that is listed")
            listed = listed or {**own, "first_row": self.rows, "appends": APPENDS_ROWS}
            first_row, rows = listed["first_row"], rows_after(listed, self.rows)
            if rows is None:
                refuse("BAD_MANIFEST", "rows or lengths that do not follow from those before")
        self.rows = rows
        for node in packed.fields:
            self.fields.setdefault(node.name.decode(), []).append(Part(number, node, first_row, packed.rows))
        for node in packed.values:
            self.nodes.setdefault(node.name.decode(), []).append((number, node))
        return Place(number, first_row, packed.rows, listed["appends"], packed.row_order_token)

    def owner_of(self, row):
        """The index in owners of the fragment that appended a row."""
        return bisect.bisect_right(self.owners, row, key=lambda place: place.first_row) - 1

    def check_tokens(self, places):
        """ROW_ORDER: fields are appended to rows of their own token."""
        until = [owner.first_row + owner.rows for owner in self.owners]  # where from it on the rows of its token end
        for i in range(len(until) - 1, 0, -1):
            if self.owners[i - 1].token == self.owners[i].token:
                until[i - 1] = until[i]
        for place in places:
            if place.appends == APPENDS_FIELDS and place.rows:
                i = self.owner_of(place.first_row)
                same = self.owners[i].token == place.token and until[i] >= place.first_row + place.rows
                if not any(place.token) or not same:
                    refuse("ROW_ORDER", "fields of other rows, or of another order", fragment=place.fragment)

    def check_field(self, name, parts):
        """DUPLICATE_NAME and SCHEMA_MISMATCH: no row twice, all parts of one type, and a part for every row."""
        rows, gap, first = 0, None, []
        for part in parts:
            if part.first_row < rows:
                refuse("DUPLICATE_NAME", "two fragments have it for the same rows", name, part.first_row, part.fragment)
            if part.first_row > rows and gap is None:
                gap = rows
            rows = part.first_row + part.rows
            if self.widen:
                continue
            lines = schema_lines(part.node)
            first = first or lines
            for (line, node), (other, there) in itertools.zip_longest(lines, first, fillvalue=("", None)):
                if line != other:
                    path = (node or there).path
                    refuse("SCHEMA_MISMATCH", "another type than in the first part", path, fragment=part.fragment)
        gap = rows if gap is None and rows < self.rows else gap
        if gap is not None and not self.widen:
            fragment = self.owners[self.owner_of(gap)].fragment
            refuse("SCHEMA_MISMATCH", f"row {gap} lacks it", name, gap, fragment)

    def read(self, fragment, node, row):
        """The cell of a fragment, which is verified in full before its first cell is read."""
        with of_fragment(fragment):
            if fragment not in self.verified:
                node.packed.verify("full")
                self.verified.add(fragment)
            node.packed.shown = node.packed.limits["shown"]
            return node.packed.cell(node, row)

    def cell(self, name, row):
        """One cell as tagged JSON; missing where no fragment has it, which widening allows."""
        if name not in self.fields:
            refuse("NOT_FOUND", "no such field", name)
        if not 0 <= row < self.rows:
            refuse("OUT_OF_RANGE", "no such row", name, row)
        parts = self.fields[name]
        i = bisect.bisect_right(parts, row, key=lambda part: part.first_row) - 1
        if i < 0 or row >= parts[i].first_row + parts[i].rows:
            return MISSING_TEXT
        return self.read(parts[i].fragment, parts[i].node, row - parts[i].first_row)

    def row(self, row):
        """Name -> cell, without the fields that the row does not have."""
        cells = {name: self.cell(name, row) for name in self.fields}
        return {name: cell for name, cell in cells.items() if cell != MISSING_TEXT}

    def value(self, name):
        """A batch value, upon which all fragments that have it agree."""
        if name not in self.nodes:
            refuse("NOT_FOUND", "no such batch value", name)
        (fragment, node), *others = self.nodes[name]
        text = self.read(fragment, node, 0)
        for fragment, node in () if self.first else others:
            if ordered(self.read(fragment, node, 0)) != ordered(text):
                refuse("SCHEMA_MISMATCH", "another value than in the first fragment", name, fragment=fragment)
        return text


# ---- 24. Schema text and fingerprint ---------------------------------------------------------------------------------

CODEC_NAMES = dict(enumerate("null ndarray ragged_tensor typed_ragged bytes_ragged media_bytes media_list_ragged "
                             "utf8_ragged json_ragged msgpack_ragged opaque_ragged".split(), 1))
FORMS = dict(enumerate("natural list array tensor scalar bytes media".split()))


def schema_line(node):
    line = f'{{"{"value" if node.scope else "field"}":{quote(node.path)}'
    if node.kind != LEAF:
        return line + f',"kind":"{"dict" if node.kind == DICT else "list"}"}}'

    def named(names, number):
        return f'"{names[number]}"' if number in names else str(number)

    line += f',"codec":{named(CODEC_NAMES, node.codec)}'
    numbers = node.codec in (C_NDARRAY, *RAGGED) or node.codec not in CODEC_NAMES
    if numbers:
        line += f',"dtype":"{DTYPES[node.dtype]}"' if node.dtype in DTYPES else ',"dtype":[%d,%d,%d]' % node.dtype
    if numbers or node.codec == C_MEDIA_LIST:
        line += f',"form":{named(FORMS, node.form)}'
    if node.codec == C_NDARRAY:
        line += f',"shape":[{",".join(map(str, node.shape))}]'
    elif numbers:
        line += f',"rank":{node.rank}'
    if node.logical_type:
        line += f',"logical_type":{node.logical_type}'
    if node.parameter:
        line += f',"parameter":{quote(node.parameter)}'
    return line + "}"


def schema_lines(node):
    """The lines of a node and of all below it, each with its node."""
    children = node.children if node.kind == LIST else sorted(node.children, key=lambda child: child.name)
    return [(schema_line(node), node)] + [line for child in children for line in schema_lines(child)]


def main(arguments):
    if arguments[:1] == ["--schema"] and len(arguments) > 1:
        for name in arguments[1:]:
            with open(name, "rb") as file:
                packed = Packed(file.read())
            sys.stdout.buffer.write((packed.schema() + packed.fingerprint() + "\n").encode())
        return 0
    verify = arguments[:1] == ["--verify"]
    level = arguments[1] if verify and arguments[1:2] and arguments[1] in ("head", "index", "full") else None
    rest = arguments[verify + (level is not None):]
    if len(rest) != 1:
        sys.exit(__doc__.strip())
    try:
        with open(rest[0], "rb") as file:
            packed = Packed(file.read())
        if verify:
            packed.verify(level or "full")
        text = "ok" if verify else packed.to_json()
        sys.stdout.buffer.write(text.encode() + b"\n")
    except PackbufError as error:
        stream = sys.stdout if verify else sys.stderr
        stream.buffer.write(str(error).encode() + b"\n")
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
