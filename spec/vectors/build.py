#!/usr/bin/env python3
"""Builds the test vectors of the packbuf format from small descriptions; shares no code with any reader or writer.

    build.py          writes valid/NAME.pbuf, valid/NAME.json (tagged JSON, section 22), valid/canonical.txt (names whose bytes are what
                      a profile 0 encoder writes for that content), valid/canonical_packed.txt (likewise, of the profile that the file's
                      header names: 1, 2 or 3; in both, behind a name: FIELD=WORD for each field that asks for a packing of its own,
                      or keep_plain), invalid/NAME.pbuf and invalid/index.tsv
                      (file, level that finds it, rule, error, byte offset, why)
    build.py --check  compares with the files that are there

The first half writes a packed buffer from columns; the second half lists the vectors. An invalid one is a valid one with one thing
broken and every checksum computed again, so that one rule alone is broken.
"""
import base64
import copy
import math
import pathlib
import re
import struct
import sys

sys.dont_write_bytecode = True

import blocks  # noqa: E402
import packings  # noqa: E402
import sharing  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
NONE = 0xFFFFFFFF

# ---- values ------------------------------------------------------------------------------------------------------------------------------


class Missing:
    pass


MISSING = Missing()


class Shown(str):
    """The tagged JSON of a cell, as it stands."""


class Float:
    """A float64 by its bits."""
    def __init__(self, bits):
        self.bits = bits


class Tensor:
    def __init__(self, form, dtype, shape, data):
        self.form, self.dtype, self.shape, self.data = form, dtype, tuple(shape), data


class Media:
    def __init__(self, data, **attributes):
        self.data, self.attributes = data, attributes


class Opaque:
    def __init__(self, serializer, data):
        self.serializer, self.data = serializer, data


DTYPES = {"int8": (0, 8), "int16": (0, 16), "int32": (0, 32), "int64": (0, 64), "uint8": (1, 8), "uint16": (1, 16), "uint32": (1, 32),
          "uint64": (1, 64), "float16": (2, 16), "float32": (2, 32), "float64": (2, 64), "bfloat16": (4, 16), "complex64": (5, 64),
          "complex128": (5, 128), "bool": (6, 8), "float8_e4m3fn": (10, 8), "float8_e5m2": (12, 8)}
PACK = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q", "float16": "e",
        "float32": "f", "float64": "d", "bool": "B"}
FORMS = {2: "array", 3: "tensor", 4: "scalar"}
ATTRIBUTES = {"mime": "utf8", "height": "int64", "width": "int64", "channels": "int64", "mode": "utf8", "rate": "float64"}


def array(dtype, values, shape=None, form=2):
    return Tensor(form, dtype, [len(values)] if shape is None else shape, b"".join(struct.pack("<" + PACK[dtype], v) for v in values))


def tensor(dtype, values, shape=None):
    return array(dtype, values, shape, 3)


def scalar(dtype, value):
    return array(dtype, [value], (), 4)


def absent(cell):
    return cell is None or cell is MISSING


def number_type(v):
    return "bool" if isinstance(v, bool) else "int" if isinstance(v, int) else "float" if isinstance(v, (float, Float)) else None


def is_nan_with_payload(v):
    return isinstance(v, Float) and v.bits & 0x7FF0 << 48 == 0x7FF0 << 48 and v.bits & (1 << 52) - 1 and v.bits != 0x7FF8 << 48


def string_json(text):
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
    return '"' + "".join(short.get(c) or (c if c >= " " else "\\u%04x" % ord(c)) for c in text) + '"'


def json_text(v, tagged):
    if v is None:
        return "null"
    if isinstance(v, Shown):
        return str(v)
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, int):
        return str(v)
    if isinstance(v, Float):
        if tagged and is_nan_with_payload(v):
            return '{"$float":"%016x"}' % v.bits
        v = struct.unpack("<d", v.bits.to_bytes(8, "little"))[0]
    if isinstance(v, float):
        return "NaN" if v != v else repr(v) if abs(v) != math.inf else "Infinity" if v > 0 else "-Infinity"
    if isinstance(v, str):
        return string_json(v)
    if isinstance(v, list):
        return "[" + ",".join(json_text(x, tagged) for x in v) + "]"
    if isinstance(v, dict):
        keys = list(v)
        if tagged and (any(not isinstance(k, str) for k in keys) or len(keys) == 1 and keys[0].startswith("$")):
            return '{"$dict":[' + ",".join("[" + json_text(getattr(k, "key", k), 1) + "," + json_text(x, 1) + "]" for k, x in v.items()) + "]}"
        return "{" + ",".join(string_json(k) + ":" + json_text(x, tagged) for k, x in v.items()) + "}"
    if v is MISSING:
        return '{"$missing":true}'
    if isinstance(v, bytes):
        return '{"$bytes":"%s"}' % b64(v)
    if isinstance(v, Tensor):
        return '{"$tensor":{"form":"%s","dtype":"%s","shape":[%s],"data":"%s"}}' % (FORMS[v.form], v.dtype, ",".join(map(str, v.shape)), b64(v.data))
    if isinstance(v, Media):
        return '{"$media":{' + "".join('"%s":%s,' % (n, json_text(v.attributes[n], 1)) for n in ATTRIBUTES if n in v.attributes) + '"data":"%s"}}' % b64(v.data)
    return '{"$opaque":{"serializer":%s,"data":"%s"}}' % (string_json(v.serializer), b64(v.data))


def b64(data):
    return base64.b64encode(data).decode()


class Key:
    """A dict key that Python would take for another (1, 1.0 and true are one key to it)."""
    def __init__(self, key):
        self.key = key


def msgpack(v):
    if isinstance(v, Key):
        v = v.key
    if v is None:
        return b"\xc0"
    if isinstance(v, bool):
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        if -32 <= v < 128:
            return struct.pack("b", v)
        for code, fmt, low, high in ((0xCC, "B", 0, 8), (0xD0, "b", 7, 7), (0xCD, "H", 0, 16), (0xD1, "h", 15, 15), (0xCE, "I", 0, 32),
                                     (0xD2, "i", 31, 31), (0xCF, "Q", 0, 64), (0xD3, "q", 63, 63)):
            if (-(1 << low) if low else 0) <= v < 1 << high and (v < 0) == bool(low):
                return bytes([code]) + struct.pack(">" + fmt, v)
        return ext(1, str(v).encode())
    if isinstance(v, float):
        return b"\xcb" + struct.pack(">d", v)
    if isinstance(v, Float):
        return b"\xcb" + v.bits.to_bytes(8, "big")
    if isinstance(v, str):
        raw = v.encode()
        return (bytes([0xA0 + len(raw)]) if len(raw) < 32 else sized((0xD9, 0xDA, 0xDB), len(raw))) + raw
    if isinstance(v, bytes):
        return sized((0xC4, 0xC5, 0xC6), len(v)) + v
    if isinstance(v, list):
        return (bytes([0x90 + len(v)]) if len(v) < 16 else sized((None, 0xDC, 0xDD), len(v))) + b"".join(map(msgpack, v))
    if isinstance(v, dict):
        return (bytes([0x80 + len(v)]) if len(v) < 16 else sized((None, 0xDE, 0xDF), len(v))) + b"".join(msgpack(k) + msgpack(x) for k, x in v.items())
    if isinstance(v, Tensor):
        return ext(2, bytes([v.form, *DTYPES[v.dtype], len(v.shape)]) + struct.pack("<%dQ" % len(v.shape), *v.shape) + v.data)
    if isinstance(v, Media):
        return ext(3, msgpack({n: v.attributes[n] for n in ATTRIBUTES if n in v.attributes}) + v.data)
    return ext(4, msgpack(v.serializer) + v.data)


def sized(codes, length):
    for code, fmt, limit in zip(codes, ">B >H >I".split(), (1 << 8, 1 << 16, 1 << 32)):
        if code is not None and length < limit:
            return bytes([code]) + struct.pack(fmt, length)


def ext(kind, body):
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(len(body))
    return (bytes([fixed]) if fixed else sized((0xC7, 0xC8, 0xC9), len(body))) + bytes([kind]) + body


# ---- columns -----------------------------------------------------------------------------------------------------------------------------

ROLES = {"data": 1, "offsets": 2, "lengths": 3, "shape": 4, "ndims": 5, "validity": 6, "missing": 7, "types": 8, "item_offsets": 9,
         "row_index": 10, "prefix_row": 11, "prefix_length": 12}
BIT, U8, U64 = (1, 1, 1), (1, 8, 1), (1, 64, 1)
CODECS = {"null": 1, "ndarray": 2, "ragged_tensor": 3, "typed_ragged": 4, "bytes_ragged": 5, "media_bytes": 6, "media_list_ragged": 7,
          "utf8_ragged": 8, "json_ragged": 9, "msgpack_ragged": 10, "opaque_ragged": 11}


class Buf:
    def __init__(self, role, dtype, count, raw, dim=0, storage=None):
        self.role, self.dim, self.dtype, self.count, self.raw, self.storage = role, dim, dtype, count, raw, storage
        self.packing, self.packed = 0, None  # packed: of packing 1, the block headers and the payloads of raw; raw of an unknown packing are its stored bytes


class Col:
    """A node: dict, list or leaf."""
    def __init__(self, name, kind, cells, codec=0, dtype=(0, 0, 0), form=0, rank=0, shape=(), parameter="", children=(), bufs=(), logical=0):
        self.name, self.kind, self.cells, self.codec, self.dtype, self.form, self.rank = name, kind, cells, codec, dtype, form, rank
        self.shape, self.parameter, self.children, self.logical = tuple(shape), parameter, list(children), logical
        self.rows, self.bufs, self.meta = len(cells), sorted(bufs, key=lambda b: (b.role, b.dim)), {}
        self.profile, self.zero_copy = None, False  # of an encoder: the column's own profile; None: that of the batch

    def store(self, storage="stored", *roles):
        """Stores the buffers of these roles (all, when none is named) so, of the whole subtree."""
        for b in self.bufs:
            if not roles or b.role in [ROLES[r] for r in roles]:
                b.storage = storage
        for child in self.children:
            child.store(storage, *roles)
        return self

    def with_meta(self, **meta):
        self.meta = meta
        return self

    def asking(self, profile=None, zero_copy=False):
        self.profile, self.zero_copy = profile, zero_copy
        return self


def bits(values):
    raw = bytearray((len(values) + 7) // 8)
    for i, v in enumerate(values):
        raw[i >> 3] |= bool(v) << (i & 7)
    return bytes(raw)


def masks(cells, null_codec=False):
    out = []
    if any(map(absent, cells)) and not null_codec:
        out.append(Buf(6, BIT, len(cells), bits([not absent(c) for c in cells])))
    if any(c is MISSING for c in cells):
        out.append(Buf(7, BIT, len(cells), bits([c is MISSING for c in cells])))
    return out


def u64s(role, values, dim=0):
    return Buf(role, U64, len(values), struct.pack("<%dQ" % len(values), *values), dim)


def offsets_of(lengths, role=2):
    total, out = 0, [0]
    for n in lengths:
        total += n
        out.append(total)
    return u64s(role, out)


def u8s(role, values):
    return [Buf(role, U8, len(values), bytes(values))] if any(values) or role == 5 else []


def null(name, cells):
    return Col(name, 1, cells, 1, bufs=masks(cells, True))


def pack(dtype, v):
    return v.bits.to_bytes(8, "little") if isinstance(v, Float) and dtype == "float64" else struct.pack("<" + PACK[dtype], v)


def own_type(dtype):
    return "bool" if dtype == "bool" else "int" if "int" in dtype else "float"


def mark(dtype, kind):
    return 0 if kind is None or own_type(dtype) == kind else {"bool": 1, "int": 2}[kind]


def ndarray(name, cells, dtype, shape=(), form=None):
    """Cells: plain numbers, or Tensors of one form."""
    present = [c for c in cells if not absent(c)]
    if form is None:
        form = present[0].form if present and isinstance(present[0], Tensor) else 0
    size = DTYPES[dtype][1] // 8 * math.prod(shape)
    raw = b"".join(bytes(size) if absent(c) else c.data if isinstance(c, Tensor) else pack(dtype, c) for c in cells)
    types = u8s(8, [0 if absent(c) or isinstance(c, Tensor) else mark(dtype, number_type(c)) for c in cells])
    return Col(name, 1, cells, 2, (*DTYPES[dtype], 1), form, len(shape), shape,
               bufs=[Buf(1, (*DTYPES[dtype], 1), len(cells) * math.prod(shape), raw), *types, *masks(cells)])


def nest(v):
    """The shape and the numbers of a rectangular nest of lists; None when it is none."""
    if not isinstance(v, list):
        return ((), [v]) if number_type(v) else None
    parts = [nest(x) for x in v]
    if None in parts or len({p[0] for p in parts}) > 1:
        return None
    shape = (len(v), *(parts[0][0] if parts else ()))
    return (shape, [x for p in parts for x in p[1]]) if len(shape) <= 8 else None


def ragged(name, cells, codec, dtype, form=None, rank=None):
    """Cells: Tensors, or lists of plain numbers."""
    present = [c for c in cells if not absent(c)]
    if form is None:
        form = 3 if codec == 3 else 1 if isinstance(present[0], list) else 2
    raw, extents, shapes, types = b"", [], [], []
    for c in cells:
        if absent(c):
            shapes.append(None)
            extents.append(0)
            types.append(0)
            continue
        if isinstance(c, Tensor):
            shape, part, t = c.shape, c.data, 0 if c.form == form else c.form << 4
        else:
            shape, numbers = nest(c)
            part = b"".join(pack(dtype, v) for v in numbers)
            t = (0 if form == 1 else 0x10) | (mark(dtype, number_type(numbers[0])) if numbers else 0)
        shapes.append(shape)
        extents.append(math.prod(shape))
        types.append(t)
        raw += part
    rank = max([len(s) for s in shapes if s is not None], default=0) if rank is None else rank
    bufs = [Buf(1, (*DTYPES[dtype], 1), sum(extents), raw), offsets_of(extents), *u8s(8, types), *masks(cells)]
    if any(s is not None and len(s) != rank for s in shapes):
        bufs += u8s(5, [len(s or ()) for s in shapes])
    if rank >= 2:
        bufs += [u64s(4, [s[d] if s is not None and d < len(s) else 0 for s in shapes], d) for d in range(rank)]
    return Col(name, 1, cells, codec, (*DTYPES[dtype], 1), form, rank, bufs=bufs)


def blob(name, cells, codec, raws=None, parameter=""):
    """Cells of bytes: raws are the bytes (None where absent)."""
    if raws is None:
        to_bytes = {5: bytes, 6: lambda c: c.data, 8: str.encode, 9: lambda c: json_text(c, False).encode(), 10: msgpack, 11: lambda c: c.data}.get(codec, bytes)
        raws = [None if absent(c) else to_bytes(c) for c in cells]
    data = b"".join(r or b"" for r in raws)
    bufs = [Buf(1, U8, len(data), data), offsets_of([len(r or b"") for r in raws]), *masks(cells)]
    return Col(name, 1, cells, codec, U8, 0, parameter=parameter, bufs=bufs)


def attributes(items):
    leaves = []
    for n, kind in ATTRIBUTES.items():
        cells = [m.attributes.get(n) if isinstance(m, Media) else None for m in items]
        if any(c is not None for c in cells):
            leaves.append(blob(n, cells, 8) if kind == "utf8" else ndarray(n, cells, kind))
    return leaves


def media(name, cells):
    col = blob(name, cells, 6)
    col.children = attributes(cells)
    return col


def media_list(name, cells, form=None):
    items = [m for c in cells if not absent(c) for m in c]
    if form is None:
        form = 6 if isinstance(items[0], Media) else 5
    raws = [m.data if isinstance(m, Media) else m for m in items]
    types = [0 if (6 if isinstance(m, Media) else 5) == form else 0x60 if isinstance(m, Media) else 0x50 for m in items]
    bufs = [Buf(1, U8, sum(map(len, raws)), b"".join(raws)), offsets_of(map(len, raws)), *u8s(8, types),
            offsets_of([0 if absent(c) else len(c) for c in cells], 9), *masks(cells)]
    return Col(name, 1, cells, 7, U8, form, children=attributes(items), bufs=bufs)


def dict_node(name, cells, children):
    return Col(name, 2, cells, children=children, bufs=masks(cells))


def list_node(name, cells, children):
    return Col(name, 3, cells, children=children, bufs=[u64s(3, [0 if absent(c) else len(c) for c in cells]), *masks(cells)])


# Section 9, row sharing and shared prefixes.


def shared(stored, cells, index):
    """The column of these cells: a stored column, whose cells are all present, and which of them each row is."""
    col = copy.copy(stored)
    col.cells, col.rows = cells, len(cells)
    col.bufs = sorted([copy.copy(b) for b in stored.bufs] + [u64s(10, index), *masks(cells)], key=lambda b: (b.role, b.dim))
    col.children = attributes(cells) if col.codec == 6 else list(stored.children)
    return col


def repeat(stored, *order, name=None):
    """The rows: numbers of stored rows, or what is absent."""
    if name:
        stored = copy.copy(stored)
        stored.name = name
    return shared(stored, [x if absent(x) else stored.cells[x] for x in order], [0 if absent(x) else x for x in order])


def prefixed(col, refs):
    """A ragged column of rank 1 with prefixes: of each stored row the stored row and the number of elements, or None."""
    refs = [ref or (0, 0) for ref in refs]
    data, offsets = (next(b for b in col.bufs if b.role == role) for role in (1, 2))
    size, at = data.dtype[1] // 8, struct.unpack("<%dQ" % offsets.count, offsets.raw)
    rows = [data.raw[a * size:b * size] for a, b in zip(at, at[1:])]
    for row, (leader, n) in zip(rows, refs):
        assert row[:n * size] == rows[leader][:n * size] and len(row) >= n * size
    own = [row[n * size:] for row, (_, n) in zip(rows, refs)]
    out = copy.copy(col)
    out.bufs = sorted([copy.copy(b) for b in col.bufs if b.role > 2] + [Buf(1, data.dtype, sum(map(len, own)) // size, b"".join(own)), offsets_of(len(x) // size for x in own),
                      u64s(11, [leader for leader, _ in refs]), u64s(12, [n for _, n in refs])], key=lambda b: (b.role, b.dim))
    return out


def leaf_cells(col):
    """What sharing.decide() wants to know of each cell."""
    data = next(b for b in col.bufs if b.role == 1).raw
    if col.codec == 2:
        size = len(data) // col.rows if col.rows else 0
        at = [i * size for i in range(col.rows + 1)]
    else:
        offsets = {b.role: struct.unpack("<%dQ" % b.count, b.raw) for b in col.bufs if b.role in (2, 9)}
        at = [offsets[2][i] for i in offsets[9]] if 9 in offsets else offsets[2]
        at = [i * (col.dtype[1] // 8) for i in at]
    return [None if absent(c) else (data[at[i]:at[i + 1]], "" if col.codec == 6 else json_text(c, True)) for i, c in enumerate(col.cells)]


def share(col, profile=0):
    """Section 19, sharing: the column as an encoder of a profile lays it out. A node's own profile is not that of those below it."""
    own = profile if col.profile is None else col.profile
    out = share_leaf(col, own) if col.kind == 1 and col.codec in (*range(2, 9), 11) and not col.zero_copy else copy.copy(col)
    out.children = [share(child, profile) for child in out.children]
    return out.asking(col.profile, col.zero_copy)


def packs_small(col, profile):
    """Whether a leaf's data pack so small that its rows are not compared."""
    data = next(b for b in col.bufs if b.role == 1)
    return col.codec <= 4 and 1 <= profile <= 3 and len(data.raw) >= 256 and blocks.allowed(data.dtype) and blocks.small(data.raw, data.dtype, profile)


def share_leaf(col, profile):
    if packs_small(col, profile):
        return copy.copy(col)
    roles = {b.role for b in col.bufs}
    size = col.dtype[1] // 8
    decision = sharing.decide(leaf_cells(col), col.codec, size, col.codec in (3, 4) and col.rank == 1 and not roles & {5, 8},
                              bytes(size * math.prod(col.shape) if col.codec == 2 else 0))
    out = copy.copy(col)
    if decision.row_index:
        cells, dtype = [col.cells[row] for row in decision.stored], next(d for d, what in DTYPES.items() if what == col.dtype[:2])
        if col.codec == 2:
            out = ndarray(col.name, cells, dtype, col.shape, col.form)
        elif col.codec in (3, 4):
            out = ragged(col.name, cells, col.codec, dtype, col.form, col.rank)
        else:
            out = media_list(col.name, cells, col.form) if col.codec == 7 else blob(col.name, cells, col.codec, parameter=col.parameter)
    if decision.prefix_row:
        out = prefixed(out, list(zip(decision.prefix_row, decision.prefix_length)))
    return shared(out, col.cells, decision.row_index) if decision.row_index else out


# Sections 17 and 18: which node a column of values becomes.

def promote(kinds, numbers):
    """The dtype of plain numbers, or None."""
    fits = {"int64": lambda v: -2**63 <= v < 2**63, "uint64": lambda v: 0 <= v < 2**64}
    if kinds == {"bool"}:
        return "bool"
    if kinds <= {"bool", "int"}:
        return next((d for d, ok in fits.items() if all(ok(int(v)) for v in numbers)), None)
    return "float64" if all(abs(v) <= 2**53 for v in numbers if number_type(v) == "int") else None


def infer(name, cells):
    present = [c for c in cells if not absent(c)]
    if present and all(isinstance(c, dict) for c in present):
        keys = list(dict.fromkeys(k for c in present for k in c))
        if all(isinstance(k, str) for k in keys) and len(keys) <= 64:
            return dict_node(name, cells, [infer(k, [None if absent(c) else c.get(k, MISSING) for c in cells]) for k in keys])
    if present and all(isinstance(c, list) and len(c) <= 8 and all(x is None or isinstance(x, (dict, list)) for x in c) for c in present):
        width = max(map(len, present))
        return list_node(name, cells, [infer("", [None if absent(c) else c[j] if j < len(c) else MISSING for c in cells]) for j in range(width)])
    return infer_leaf(name, cells, present)


def infer_leaf(name, cells, present):
    def every(kind):
        return all(isinstance(c, kind) for c in present)

    if not present:
        return null(name, cells)
    if every(Tensor) and all(c.form == 3 for c in present) and len({c.dtype for c in present}) == 1:
        return ragged(name, cells, 3, present[0].dtype)
    if every(list) and all(isinstance(x, (Media, bytes)) for c in present for x in c) and any(present):
        return media_list(name, cells)
    dtype = typed_dtype(present)
    if dtype:
        return ragged(name, cells, 4, dtype)
    kinds = {number_type(c) for c in present}
    if None not in kinds:
        dtype = promote(kinds, present)
        if dtype:
            return ndarray(name, cells, dtype)
    if every(Tensor) and all(c.form == 4 for c in present) and len({c.dtype for c in present}) == 1:
        return ndarray(name, cells, present[0].dtype)
    if every(bytes):
        return blob(name, cells, 5)
    if every(Media):
        return media(name, cells)
    if every(str):
        return blob(name, cells, 8)
    if all(map(json_holds, present)):
        return blob(name, cells, 9)
    if every(Opaque) and len({c.serializer for c in present}) == 1:
        return blob(name, cells, 11, parameter=present[0].serializer)
    return blob(name, cells, 10)


def typed_dtype(present):
    arrays, lists, kinds = set(), [], set()
    for c in present:
        if isinstance(c, Tensor) and c.form == 2:
            arrays.add(c.dtype)
        elif isinstance(c, list) and nest(c) is not None:
            numbers = nest(c)[1]
            if len({number_type(v) for v in numbers}) > 1:
                return None
            lists += numbers
            kinds |= {number_type(v) for v in numbers}
        else:
            return None
    if len(arrays) > 1 or not arrays and not lists:
        return None
    if not arrays:
        return promote(kinds, lists)
    dtype = next(iter(arrays))
    if lists and not (len(kinds) == 1 and {"int64": "int", "uint64": "int", "float64": "float", "bool": "bool"}.get(dtype) in kinds and
                      (kinds != {"int"} or all((-2**63 if dtype == "int64" else 0) <= v < 2**(63 if dtype == "int64" else 64) for v in lists))):
        return None
    return dtype


def json_holds(v):
    if isinstance(v, list):
        return all(map(json_holds, v))
    if isinstance(v, dict):
        return all(isinstance(k, str) and json_holds(x) for k, x in v.items())
    return v is None or isinstance(v, (bool, int, float, str)) or isinstance(v, Float) and not is_nan_with_payload(v)


# ---- the packed buffer -------------------------------------------------------------------------------------------------------------------


def crc32c(data, table=[]):
    if not table:
        for n in range(256):
            for _ in range(8):
                n = (n >> 1) ^ (0x82F63B78 * (n & 1))
            table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def byte_length(count, dtype):
    return (count * dtype[1] * dtype[2] + 7) // 8


class Batch:
    """A packed buffer of these columns. Nodes and buffers are found again by path and role, and poked; seal() computes all checksums."""

    def __init__(self, rows, fields=(), values=(), meta=None, exponent=6, checksums=True, minor=0, profile=0, kind=1, optional=0,
                 token=bytes(16), strides=(64, 64, 32, 4), junk=0, index_tail=0, data_tail=0, room=None):
        self.rows, self.fields, self.values, self.meta, self.strides = rows, list(fields), list(values), meta or {}, strides
        self.profile = profile
        self.a, self.checksums, self.room = 1 << exponent, checksums, room
        self.list_nodes()
        self.choose_storage()
        self.choose_packing()
        strings, meta_records = self.lay_strings()
        counts = len(self.nodes), len(self.bufs), len(meta_records), len(self.named)
        places = [128]
        for count, stride in zip(counts, strides):
            places.append(places[-1] + count * stride)
        self.nodes_at, self.bufs_at, self.meta_at, self.names_at, self.strings_at = places
        self.strings_end = self.strings_at + len(strings)
        self.head_length = self.up(self.strings_end)
        index, data = self.lay_buffers(index_tail, data_tail)
        self.data_at = self.head_length + len(index)
        self.total = self.data_at + len(data)
        head = bytearray(b"%c" % junk * self.head_length)
        head[:128] = bytes(128)
        struct.pack_into("<8sHHBBHIIQQQQ", head, 0, b"\x89PBUF\r\n\x1a", 1, minor, kind, exponent, profile, 0, optional | checksums, self.total,
                         self.head_length, len(index), rows)
        struct.pack_into("<IIIIHHHHQII16sI", head, 64, *counts, *strides, len(strings), len(self.fields), len(self.values), token, self.room)
        for i, n in enumerate(self.nodes):
            self.put(head, self.node(i), "<IIIIIHBBBBBBHBBIIIIQQ", n.parent, n.descendants, n.name_offset, len(n.raw_name), n.first, len(n.bufs),
                     n.kind, n.scope, n.codec, n.dtype[0], n.dtype[1], n.form, n.dtype[2], n.rank, n.logical, n.shape_offset,
                     n.parameter_offset, len(n.raw_parameter), 0, n.rows, 0)
        for i, b in enumerate(self.bufs):
            self.put(head, self.buffer(i), "<IBBBBBBHIQQQ16sQ", b.owner.index, b.role, b.dim, b.code, b.packing, *b.dtype, b.alias, b.count,
                     b.offset + (self.data_at if b.role == 1 else self.head_length) if b.code in (1, 5) else 0,
                     b.length if b.code in (1, 5) else 0, b.value, b.headers + self.head_length if b.packing and b.code in (1, 5) else 0)
        for i, record in enumerate(meta_records):
            self.put(head, self.metadata(i), "<IIIII12s", *record, b"")
        for i, n in enumerate(self.named):
            self.put(head, self.name(i), "<I", n.index)
        head[self.strings_at:self.strings_end] = strings
        head[self.strings_end:] = bytes(self.head_length - self.strings_end)
        self.bytes = head + index + data
        self.seal()

    @staticmethod
    def put(head, at, fmt, *fields):
        struct.pack_into(fmt, head, at, *fields)

    def up(self, n):
        return -(-n // self.a) * self.a

    def list_nodes(self):
        self.nodes, self.bufs, self.named = [], [], []

        def add(col, parent, scope, path):
            col = copy.copy(col)
            col.index, col.parent, col.scope, col.path = len(self.nodes), parent, scope, path
            col.raw_name = col.name if isinstance(col.name, bytes) else col.name.encode()
            col.raw_parameter = col.parameter if isinstance(col.parameter, bytes) else col.parameter.encode()
            self.nodes.append(col)
            col.first = len(self.bufs)
            for b in col.bufs:
                b = copy.copy(b)
                b.owner = col
                self.bufs.append(b)
            for i, child in enumerate(col.children):
                step = "[%d]" % i if col.kind == 3 else "." + escape(child.name)
                add(child, col.index, scope, path + step)
            col.descendants = len(self.nodes) - 1 - col.index
            if parent == NONE or self.nodes[parent].kind != 3:
                self.named.append(col)

        for scope, cols in ((0, self.fields), (1, self.values)):
            for col in cols:
                add(col, NONE, scope, escape(col.name))
        self.named.sort(key=lambda n: (n.parent, n.scope, n.raw_name))

    def packs_in(self, b):
        """The profile of a buffer that may be packed, if it is stored; else 0."""
        profile = self.profile if b.owner.profile is None else b.owner.profile
        may = b.length >= 256 and (b.role != 1 or 2 <= b.owner.codec <= 4) and blocks.allowed(b.dtype) and not b.owner.zero_copy
        return profile if may and 1 <= profile <= 3 else 0

    def may_alias(self, b, earlier):
        """What is read in place is no alias of what may be packed."""
        in_place = (b.role == 1 and 5 <= b.owner.codec <= 11) or b.owner.zero_copy or not (self.profile if b.owner.profile is None else b.owner.profile)
        return not (in_place and self.packs_in(earlier))

    def choose_storage(self):
        """Section 19, profile 0, and what of it others change; a storage that the description names is taken as it is."""
        earlier = {}  # content -> the buffers that have it stored
        for i, b in enumerate(self.bufs):
            b.alias, b.offset, b.length, b.value, b.headers = 0, 0, byte_length(b.count, b.dtype), bytes(16), 0
            assert b.length == len(b.raw) or b.storage in ("constant", "sequence") or b.packing, (b.owner.name, b.role)
            section = b.role == 1, b.dtype, b.count, b.raw if isinstance(b.raw, tuple) else bytes(b.raw)
            pushed = b.role == 1 and b.owner.codec in (9, 10)  # JSON and MessagePack data are neither aliases nor their targets
            alone = b.role == 1 and b.owner.zero_copy
            target = next((k for k in earlier.get(section, ()) if b.storage == "alias" or self.may_alias(b, self.bufs[k])), None)
            storage = b.storage or ("stored" if alone and b.length > 16 else self.canonical(b, target is not None and not pushed))
            b.code = {"stored": 1, "inline": 2, "constant": 3, "sequence": 4, "alias": 5}[storage]
            if storage == "inline":
                b.value = b.raw.ljust(16, b"\0")
            elif storage == "constant":
                size = byte_length(1, b.dtype)
                b.value = (bytes([b.raw[0] & 1]) if b.dtype == BIT else b.raw[:size]).ljust(16, b"\0")
            elif storage == "sequence" and isinstance(b.raw, tuple):
                b.value = (b.raw[0] % 2**64).to_bytes(8, "little") + (b.raw[1] % 2**64).to_bytes(8, "little")
            elif storage == "sequence":
                v = struct.unpack("<%d%s" % (b.count, "q" if b.dtype[0] == 0 else "Q"), b.raw)
                step = v[1] - v[0] if b.count > 1 else 0
                b.value = b.raw[:8] + (step % 2**64).to_bytes(8, "little")
            elif storage == "alias":
                b.alias = target
            elif not pushed:
                earlier.setdefault(section, []).append(i)

    def choose_packing(self):
        """Section 19, profiles 1 to 3, for what is stored and has no packing yet."""
        for b in self.bufs:
            if b.code == 1 and not b.packing and self.packs_in(b):
                b.packed = blocks.pack(b.raw, b.dtype, self.packs_in(b))
                b.packing = int(b.packed is not None)
        for b in self.bufs:
            if b.code == 5:
                b.packing, b.packed = self.bufs[b.alias].packing, self.bufs[b.alias].packed

    @staticmethod
    def canonical(b, again):
        if b.length <= 16:
            return "inline"
        size = byte_length(1, b.dtype)
        if b.dtype == BIT:
            if b.raw in (bits([0] * b.count), bits([1] * b.count)):
                return "constant"
        elif b.raw == b.raw[:size] * b.count and not (b.role == 1 and 5 <= b.owner.codec <= 11):
            return "constant"
        if b.role != 1 and b.dtype in (U64, (0, 64, 1)):
            v = struct.unpack("<%dQ" % b.count, b.raw)
            steps = {y - x for x, y in zip(v, v[1:])}
            if len(steps) == 1 and -2**63 <= steps.pop() < 2**63:
                return "sequence"
        return "alias" if again else "stored"

    def lay_strings(self):
        out = b""
        for n in self.nodes:
            n.name_offset = len(out)
            out += n.raw_name
            n.shape_offset = len(out)
            if n.codec == 2:
                out += struct.pack("<%dQ" % len(n.shape), *n.shape)
            n.parameter_offset = len(out)
            out += n.raw_parameter
        records = []
        for owner, pairs in [(n.index, n.meta) for n in self.nodes] + [(NONE, self.meta)]:
            for key, value in sorted((k.encode() if isinstance(k, str) else k, v.encode() if isinstance(v, str) else v) for k, v in pairs.items()):
                records.append((owner, len(out), len(key), len(out) + len(key), len(value)))
                out += key + value
        return out, records

    def lay_buffers(self, index_tail, data_tail):
        data, index = bytearray(), bytearray()

        def add(section, raw):
            at = len(section)
            section += raw
            section += bytes(self.up(len(section)) - len(section))
            return at

        if self.room is None:  # section 19: as much as the checksums of the plain data would take beyond those of the packed
            place = lambda length: self.up(4 * -(-length // 65536)) // self.a  # noqa: E731
            stored = [b for b in self.bufs if b.role == 1 and b.code == 1]
            without, with_ = sum(self.up(len(b.raw)) for b in stored), sum(self.up(len(b.packed[1] if b.packing == 1 else b.raw)) for b in stored)
            self.room = place(without) - place(with_) if self.checksums else 0
        for b in sorted(self.bufs, key=lambda b: b.packing != 0):  # the data first: the index begins with its checksums
            if b.role == 1 and b.code == 1:
                b.length = len(b.packed[1] if b.packing == 1 else b.raw)
                b.offset = add(data, b.packed[1] if b.packing == 1 else b.raw)
        data += bytes(data_tail)
        if self.checksums:
            index += bytes(4 * -(-len(data) // 65536))
            index += bytes(self.up(len(index)) - len(index))
        index += bytes(self.room * self.a)
        for b in self.bufs:
            if b.packing and b.code == 1:  # of an unknown packing too, whatever they say
                b.headers = add(index, b.packed[0] if b.packing == 1 else b"header of no one" * -(-byte_length(b.count, b.dtype) // 8192))
            if b.role != 1 and b.code == 1:
                b.length = len(b.packed[1] if b.packing == 1 else b.raw)
                b.offset = add(index, b.packed[1] if b.packing == 1 else b.raw)
        for b in self.bufs:
            if b.code == 5:
                of = self.bufs[b.alias]
                b.offset, b.length, b.headers = of.offset, of.length, of.headers
        return index + bytes(index_tail), data

    # positions

    def node(self, what, field=0):
        if isinstance(what, str):
            what = next(n.index for n in self.nodes if n.path == what)
        return self.nodes_at + what * self.strides[0] + field

    def buffer(self, what, field=0, role=None, dim=0):
        if isinstance(what, str):
            role = ROLES[role] if isinstance(role, str) else role
            what = next(i for i, b in enumerate(self.bufs) if b.owner.path == what and b.role == role and b.dim == dim)
        return self.bufs_at + what * self.strides[1] + field

    def metadata(self, i, field=0):
        return self.meta_at + i * self.strides[2] + field

    def name(self, i):
        return self.names_at + i * self.strides[3]

    def string(self, text):
        return self.bytes.index(text, self.strings_at)

    def element(self, path, role, byte=0, dim=0):
        """The place of a byte of a buffer's elements."""
        record = self.buffer(path, 0, role, dim)
        storage, = struct.unpack_from("<B", self.bytes, record + 6)
        offset, = struct.unpack_from("<Q", self.bytes, record + 24)
        return offset + byte if storage in (1, 5) else record + 40 + byte

    def poke(self, at, fmt, *fields):
        struct.pack_into("<" + fmt, self.bytes, at, *fields)

    def seal(self):
        """Every checksum again, of whatever lengths the header now says."""
        b = self.bytes
        flag, = struct.unpack_from("<I", b, 20)
        if flag & 1:
            for i, at in enumerate(range(self.data_at, self.total, 65536)):
                struct.pack_into("<I", b, self.head_length + 4 * i, crc32c(b[at:min(at + 65536, self.total)]))
        head, index = struct.unpack_from("<QQ", b, 32)
        head, index = min(head, len(b)), min(index, len(b))
        struct.pack_into("<I", b, 56, crc32c(b[head:head + index]))
        struct.pack_into("<I", b, 60, crc32c(b[:60] + bytes(4) + b[64:head]))

    def tagged(self):
        fields = ",".join(string_json(c.name) + ":" + "[" + ",".join(json_text(x, 1) for x in c.cells) + "]" for c in self.fields)
        values = ",".join(string_json(c.name) + ":" + json_text(c.cells[0], 1) for c in self.values)
        owners = [("", self.meta)] + [("values:" * n.scope + n.path, n.meta) for n in self.nodes]
        meta = ",".join(string_json(path) + ":{" + ",".join(string_json(k) + ":" + string_json(pairs[k]) for k in sorted(pairs, key=str.encode)) + "}"
                        for path, pairs in owners if pairs)
        return '{"rows":%d,"fields":{%s},"values":{%s},"metadata":{%s}}\n' % (self.rows, fields, values, meta)


def escape(name):
    return re.sub(r"([\\.\[])", r"\\\1", name if isinstance(name, str) else name.decode("utf-8", "replace"))


# ---- valid vectors -----------------------------------------------------------------------------------------------------------------------

VALID, CANONICAL, PACKED, INVALID = {}, [], [], {}  # name -> (bytes, tagged JSON); names, of profile 0 and the others; name -> (bytes, level, rule, offset, why)


def valid(name, batch, tagged=None, canonical=False, asked=None):
    assert name not in VALID
    VALID[name] = bytes(batch.bytes), tagged or batch.tagged()
    if canonical:
        (PACKED if batch.profile else CANONICAL).append(" ".join([name] + ["%s=%s" % ask for ask in (asked or {}).items()]))


def values(name, rows=None, fields=None, batch_values=None, meta=None, field_meta=None):
    """A canonical vector: content alone decides."""
    cols = [share(infer(n, cells)) for n, cells in (fields or {}).items()]
    assert len({col.rows for col in cols}) <= 1, name
    for col in cols:
        col.meta = (field_meta or {}).get(col.name, {})
    rows = len(next(iter(fields.values()))) if rows is None else rows
    valid(name, Batch(rows, cols, [share(infer(n, [v])) for n, v in (batch_values or {}).items()], meta), canonical=True)


def unreadable(col, error):
    col.cells = [Shown('{"$unreadable":"UNSUPPORTED_%s"}' % error)] * col.rows
    return col


N, M = None, MISSING
PNG = b"\x89PNG\r\n\x1a\n"


def valid_canonical():
    values("empty", 0, {})
    values("rows_without_fields", 5, {})
    values("zero_rows", 0, {"a": [], "b": []})
    values("ints", fields={"a": [1, 2, 3], "b": [-2**63, 0, 2**63 - 1], "big": [2**64 - 1, 0, 2**63]})
    values("ints_none", fields={"a": [-1, 2**63], "b": [2**64, 1], "c": [2**53 + 1, 0.5], "d": [-2**64, None]})
    values("floats", fields={"a": [0.5, -0.0, 0.0, math.inf, -math.inf, math.nan, 1e16, 1e-5, 5e-324, 1.7976931348623157e308, 0.1, 123456789012345680.0],
                             "b": [1e22, 1e21, 1e15, 1e-4, 9007199254740992.0, -1.5, 2.5e-7, 1e100, 3.0, 1e17, 123456.789, 4.35]})
    values("float_payloads", fields={"a": [Float(0x7FF8000000000001), Float(0xFFF8000000000000), Float(0x7FF0000000000001), 1.0, Float(0x7FF8 << 48)],
                                     "b": [[Float(0x7FF8000000000001)], [1.5], [], N, [2.5, Float(0xFFF8 << 48)]]})
    values("bools", fields={"a": [True, False, True], "b": [True, N, M], "c": [[True, False], [], [False]]})
    values("bool_in_int", fields={"a": [True, 2, N, False], "b": [2**63, True, M, 0]})
    values("bool_and_int_in_float", fields={"a": [True, 2.5, N, 1], "b": [1, 2.5, 2**53, -2**53], "c": [False, 0.0, 0, M]})
    values("lists_of_types", fields={"a": [[1, 2], [1.5], [True], [], N], "b": [[1], [True, False], M, [], [2**62]]})
    values("lists_mixed_types", fields={"a": [[1, 2.5], [True, 1], []], "b": [[1, "x"], [1], N], "c": [[[1, 2], [3]], [0], [[]]]})
    values("null_columns", fields={"n": [N, N, N], "both": [N, M, N]})
    values("null_columns_long", fields={"n": [N] * 300, "both": [N, M] * 150})
    values("missing_columns", fields={"m": [M, M, M], "n": [N, N, N], "d": [{"k": 1}, M, N]}, batch_values={"m": M, "n": N})
    values("missing_columns_long", fields={"m": [M] * 300})
    values("null_missing_empty", fields={"s": ["", N, M, "x"], "b": [b"", N, M, b"\0"], "l": [[], N, M, [1]], "d": [{}, N, M, {"k": N}], "e": [[], N, M, []],
                                         "o": [{}, N, M, {}], "j": ["", [], N, {}]})
    values("text", fields={"s": ["plain", "", "\u00e9\u4e2d\U0001f600", "\"\\\b\f\n\r\t\x00\x1f\x7f", "a\u0000b"]})
    values("bytes", fields={"b": [b"\x00\xff", b"", N, bytes(range(40))]})
    values("nested", fields={"d": [
        {"l": [{"a": 1, "b": [{"c": "x"}]}, N, {}], "k": 1},
        {"k": N},
        N,
        M,
        {"l": [], "k": 2},
        {"l": [{"b": []}, {"a": N}]},
        {"l": N}]})
    values("nested_lists", fields={"l": [[[1, 2], [3]], [], N, [[], N], M, [[4, 5, 6]]]})
    values("list_without_children", fields={"l": [[], N, M, []], "m": [[], [], [], []], "d": [{}, N, {}, M]})
    values("list_of_nulls", fields={"l": [[N, N], [N], [], N]})
    values("wide_dict_is_json", fields={"d": [{"k%d" % i: i for i in range(65)}], "e": [{"k%d" % i: i for i in range(64)}]})
    values("long_list_is_json", fields={"l": [[{"a": 1}] * 9], "m": [[{"a": 1}] * 8]})
    values("dollar_keys", fields={"d": [{"$a": 1}, {"$a": 1, "b": 2}, {}], "j": [[1, {"$x": N}], "s", {"$bytes": "AA=="}], "$f": [1, 2, 3]}, batch_values={"$v": 1})
    values("batch_values", 3, {"a": [1, 2, 3]}, {"v": {"x": [{"y": 1}, N], "z": {"w": "deep"}}, "n": N, "l": [1, 2, 3], "t": tensor("float32", [1, 2], (1, 2))})
    values("batch_values_only", 0, {}, {"step": 7})
    values("same_name_twice", 2, {"a": [1, 2], "b": ["x", "y"]}, {"b": b"z", "a": 1.5})
    values("names", fields={"a.b": [1], "a[0]": [2], "a\\b": [3], "": [4], "\u00fc\u4e2d": [5], "a": [{"x.y": 1, "": {"[": 2}, "\\": [{"q": 3}]}], "Z": [6], "a\x00": [7]},
           field_meta={"a.b": {"unit": "m"}, "a[0]": {"k": "v"}, "a\\b": {"": ""}, "\u00fc\u4e2d": {"\u00e9": "\u4e2d"}})
    values("metadata", fields={"a": [1, 2], "s": ["p", "q"]}, meta={"z": "last", "a": "first", "": "empty key", "\u00e9": "\u4e2d\n"},
           field_meta={"a": {"unit": "m", "b": ""}, "s": {"lang": "en"}})
    vals = [infer("a", [{"x.y": 1}]).with_meta(of="the value"), infer("", [2]).with_meta(k="v")]
    vals[0].children[0].meta = {"unit": "s"}
    valid("metadata_of_values", Batch(1, [infer("a", [1]).with_meta(of="the field")], vals, {"k": "v"}), canonical=True)
    values("tensors", fields={"same": [tensor("float32", [1, 2, 3, 4], (2, 2)), tensor("float32", [5, 6], (1, 2)), N],
                              "mixed": [tensor("int8", [1], ()), tensor("int8", [1, 2], (2,)), tensor("int8", [1, 2, 3, 4, 5, 6], (1, 2, 3))],
                              "empty": [tensor("uint16", [], (0, 3)), tensor("uint16", [], (0,)), M],
                              "zero_d": [tensor("int64", [1], ()), N, tensor("int64", [-1], ())],
                              "one_d": [tensor("bool", [1, 0], (2,)), tensor("bool", [], (0,)), tensor("bool", [1], (1,))]})
    values("tensor_ranks", fields={"r%d" % r: [tensor("uint8", [7] * 2, (1,) * (r - 1) + (2,) if r else ()) if r else tensor("uint8", [7], ()),
                                               tensor("uint8", [1] * (2 if r else 1), (2,) + (1,) * (r - 1) if r else ()), N] for r in range(9)})
    values("all_ranks_in_one", fields={"t": [tensor("int16", list(range(2**min(r, 2))), (1,) * (r - 2) + (2, 2) if r >= 2 else (2,) * r) for r in range(9)]})
    values("arrays_and_lists", fields={"i": [array("int64", [1, 2]), [3, 4], N, []], "f": [[0.5], array("float64", [1.5, 2.5], (2, 1)), M, array("float64", [], (0,))],
                                       "b": [[True], array("bool", [0, 1]), [False, True], []], "u": [array("uint64", [2**64 - 1]), [2**63], [], N]})
    values("arrays", fields={"a": [array("int32", [1, 2]), array("int32", [3], (1, 1)), array("int32", [4], ())], "c": [array("complex64", [], (0,)), Tensor(2, "complex64", (1,), bytes(range(8))), N]})
    values("nested_number_lists", fields={"l": [[[i, i + 1] for i in range(9)], [[1], [2], [3], [4], [5], [6], [7], [8], [9]], N, []],
                                          "m": [[[[1.5]]] * 9, [1, 2], [[], []] + [[]] * 8, M]})
    dtypes = list(DTYPES)
    raw = {d: bytes([0, 1][i % 2] if d == "bool" else (i * 37 + 5) % 256 for i in range(3 * DTYPES[d][1] // 8)) for d in dtypes}
    values("every_dtype_tensor", fields={d: [Tensor(3, d, (3,), raw[d]), N] for d in dtypes})
    values("every_dtype_scalar", fields={d: [Tensor(4, d, (), raw[d][:DTYPES[d][1] // 8]), Tensor(4, d, (), raw[d][DTYPES[d][1] // 8:][:DTYPES[d][1] // 8]), N] for d in dtypes})
    values("scalars_mixed", fields={"a": [scalar("float32", 1.5), 2.5], "b": [scalar("int8", 1), scalar("uint8", 200)], "c": [tensor("int8", [1]), array("int8", [1])],
                                    "d": [array("int8", [1]), [1]], "e": [tensor("int8", [1]), [1, 2]]})
    values("media", fields={"m": [Media(PNG, mime="image/png", height=2, width=3, channels=3, mode="RGB"), Media(b"", rate=44100.0, channels=2), N, Media(b"raw"), M],
                            "plain": [Media(b"a"), N, M, Media(b""), Media(b"c")]})
    values("media_lists", fields={"m": [[Media(PNG, mime="image/png"), b"bytes", Media(b"x", height=1)], [], N, [b""], M], "b": [[b"a", b"bc"], [b""], [], N, [b"d"]],
                                  "c": [[Media(b"1", rate=0.5)], [], [], [], [Media(b"2"), Media(b"3", mode="L", width=7)]]})
    values("json", fields={"j": [[1, N], {"a": [1.0, math.nan, math.inf, -math.inf, 2**100, -2**70, -0.0, 1e16]}, "text", 1, 1.5, True, [], {}, N, M, {"k": {"$a": N}}, [[[]]]]})
    values("msgpack", fields={"m": [{1: "int", -1: "neg", "s": 1, b"b": 2, N: 3, Key(True): 4, Key(1.5): 5}, [b"raw", 1], Float(0x7FF8000000000001), N, M,
                                    [Opaque("pickle", b"\x80"), Media(PNG, mime="image/png", height=1, rate=2.5), tensor("float32", [1, 2], (2, 1)), scalar("int8", -1),
                                     array("bool", [1, 0]), 2**64, -2**63 - 1, 10**40],
                                    {Key(1): 1, Key(1.0): 2, Key(False): 3, "1": 4, b"1": 5}, {Key(2**64): 1}]})
    ints = [s * (2**k + o) for k in (5, 7, 8, 15, 16, 31, 32, 63) for s in (1, -1) for o in (-1, 0, 1)] + [2**64 - 1, 2**64, -2**63 - 1]
    values("msgpack_sizes", fields={"m": [[b"", *ints], ["x" * n for n in (31, 32)] + [b"y" * 3, b"", {}], {i: i for i in range(16)}, [b""] * 16,
                                          [tensor("uint8", [1, 2, 3, 4], (4,)), Opaque("a", b"bc"), Opaque("", b""), Opaque("abcdefg", b"12345678")], ["z" * 256, b"w" * 256]]})
    values("opaque", fields={"o": [Opaque("pickle", b"\x80\x04."), N, Opaque("pickle", b""), M], "two": [Opaque("a", b"1"), Opaque("b", b"2"), N, M]})
    values("constants", fields={"a": [7] * 20, "s": ["x"] * 40, "b": [True] * 20 + [True] * 20, "e": [""] * 40, "n": [1] * 39 + [N]} | {"a": [7] * 40})
    values("long_masks", fields={"a": [N] * 150 + [1] * 150, "m": [M if i % 3 else i for i in range(300)], "c": [5] * 299 + [N]})
    values("sequences", fields={"s": ["ab"] * 20, "l": [[1, 2]] * 20, "n": [[[]] * (i % 3) for i in range(20)], "t": [tensor("uint8", [1] * (i + 1), (1, i + 1)) for i in range(20)]})
    values("aliases", fields={"a": ["x%d" % (i % 7) for i in range(30)], "b": ["x%d" % (i % 7) for i in range(30)], "c": [i * i for i in range(30)], "d": [i * i for i in range(30)],
                              "e": ["y%d" % (i % 7) if i != 3 else "long" for i in range(30)], "f": ["z%d" % (i % 7) if i != 3 else "LONG" for i in range(30)]})
    same = {"s": ["\0"] * 40, "b": [b"aa" * 10, b"", N] + [b"a"] * 20, "c": [b"x" * 17], "j": [int("1" * 22)] * 2, "m": [Media(b"..")] * 10, "l": [[b"y", b"yy"]] * 10,
            "o": [Opaque("s", b"zz")] * 10}
    values("constant_bytes", fields={k: v + [N] * (40 - len(v)) for k, v in same.items()})
    once = {"j": [[i, "x"] for i in range(12)], "m": [{i: b"x"} for i in range(12)], "p": [Media(b"pic%d" % i, mime="a/%d" % i) for i in range(12)],
            "l": [[b"item%d" % i, b""] for i in range(12)], "o": [Opaque("s", b"opaque%d" % i) for i in range(12)], "b": [b"byte%d" % i for i in range(12)]}
    values("aliases_of_bytes", fields=once | {k + "2": v for k, v in once.items()} | {"b_of_s": ["byte%d" % i for i in range(12)], "s_of_j": [json_text(v, 0) for v in once["j"]],
                                              "b_of_m": [msgpack(v) for v in once["m"]]})
    ragged_rows = [tensor("uint8", [0] * (i * i % 7) * 2, (i * i % 7, 2)) for i in range(20)]
    values("aliases_across_roles", fields={"t": ragged_rows, "n": [[{}] * (i * i % 7) for i in range(20)], "d": [tensor("int8", [1], (1,) * (1 + i % 2)) for i in range(20)],
                                           "k": [[1.0 + i % 2 if i % 2 == 0 else 2] for i in range(20)], "x": [[1.5] if i % 2 else [2] for i in range(20)]})
    values("aliases_of_masks", fields={"a": [N if i % 3 else i for i in range(200)], "b": [str(i) if i % 3 == 0 else N for i in range(200)], "m": [M if i % 3 == 0 and i else i for i in range(200)],
                                       "all": [7] * 200})
    values("sequences_down", fields={"t": [tensor("uint8", [1] * (20 - i), (20 - i, 1)) for i in range(20)], "wrap": [i - 10 for i in range(20)]})
    deep = 1
    for _ in range(32):
        deep = {"k": deep}
    values("depth_32", fields={"d": [deep, N]})
    deep = 1.5
    for _ in range(7):
        deep = [deep]
    values("number_lists_8_and_9_deep", fields={"eight": [[deep] * 9], "nine": [[[deep]] * 9], "ragged": [[[1], [1, 2]] + [[1]] * 8]})
    values("arrays_with_other_lists", fields={"a": [array("float64", [1]), [1]], "b": [array("int64", [1]), [2**63]], "c": [array("uint64", [1]), [-1]], "d": [array("bool", [1]), [1]],
                                              "e": [array("float64", [1]), [1.5, 1]], "f": [array("int64", [1]), [True]], "g": [array("int32", [1]), []], "h": [array("float32", [1]), [1.5]],
                                              "i": [array("int64", [1]), [2**63 - 1]], "j": [array("int64", [1]), scalar("int64", 1)], "k": [[], array("int8", [1])], "l": [[], tensor("int8", [1])]})
    values("wholes_that_fall_apart", fields={"keys": [{"a": 1}, {1: 2}, N], "wide": [{"a%d" % i: i for i in range(33)}, {"b%d" % i: i for i in range(33)}, N], "long": [[{}] * 8, [{}] * 9, []],
                                             "items": [[N, 1], [N], []], "payload": [[Float(0x7FF8000000000001), "x"], [N], N], "dict_list": [{"a": 1}, [], N], "list_string": [["a"], [], N],
                                             "bytes_first": [[b"b", Media(b"m", mode="L")], [Media(b"")], N], "serializers": [Opaque("a", b""), Opaque("b", b""), N],
                                             "media_bytes": [Media(b""), b"", N], "number_string": [1, "1", N], "big": [2**64, -2**63 - 1, N], "zero": [-0.0, 0, N]})
    values("field_order", fields={"b": [1, N], "a": [M, 2], "c": [M, "x"]}, batch_values={"z": 1, "a": 2})
    reward = ndarray("reward", [1.0, 0.0, 0.5], "float32")  # of an array: plain numbers are float64
    valid("worked_example", Batch(3, [reward, infer("tokens", [tensor("int64", v) for v in ([9707, 1879, 0, 151645], [], [40, 151645])]),
                                      infer("text", ["Hello world! How are you?", N, "I see."])], [infer("step", [7])], {"tokenizer": "qwen"}), canonical=True)
    values("two_checksum_chunks", fields={"n": [(i * i) % 251 for i in range(9000)]})


def valid_codecs():
    """What a builder may describe and inference does not choose."""
    def shape(d):
        return Tensor(2, "int16", d, b"\1\0" * math.prod(d))

    valid("ndarray_ranks", Batch(2, [ndarray("r%d" % r, [shape((1,) * (r - 1) + (2,)), shape((1,) * (r - 1) + (2,))], "int16", (1,) * (r - 1) + (2,)) for r in range(1, 9)] +
                                 [ndarray("r0", [shape(()), shape(())], "int16")]))
    valid("ndarray_nulls", Batch(3, [ndarray("a", [tensor("int32", [1, 2]), N, M], "int32", (2,)), ndarray("e", [shape((3, 0, 2)), N, shape((3, 0, 2))], "int16", (3, 0, 2)),
                                     ndarray("t", [tensor("float64", [1], ()), N, M], "float64")]))
    natural = {"int8": -3, "int16": -300, "int32": 70000, "uint8": 200, "uint16": 60000, "uint32": 2**32 - 1, "float16": 1.5, "float32": -0.1015625}
    valid("natural_dtypes", Batch(2, [ndarray(d, [v, N], d) for d, v in natural.items()]))
    small = {"bfloat16": (b"\xc0\x3f", 1.5), "float8_e4m3fn": (b"\x7e", 448.0), "float8_e5m2": (b"\x01", 2.0**-16)}
    cols = []
    for d, (raw, v) in small.items():
        col = ndarray(d, [Tensor(2, d, (), raw)], d)
        col.form, col.cells = 0, [v]
        cols.append(col)
    quiet = ndarray("float32_nan", [Tensor(2, "float32", (), b"\1\0\xc0\x7f")], "float32")
    quiet.form, quiet.cells = 0, [Float(0x7FF8000020000000)]
    valid("natural_small_floats", Batch(1, cols + [quiet]))
    valid("types_in_ndarray", Batch(4, [ndarray("f", [1, 0, 2.5, True], "float64"), ndarray("h", [1, False, 2048, 0.5], "float16"),
                                        forms_ndarray("g", "int8", [0x20, 0x30, 0x40, 0])]))
    valid("typed_ragged_dtypes", Batch(2, [ragged(d, [[1, 2], []], 4, d) for d in ("int8", "uint32")] + [ragged("float32", [[1.5], [1, 2]], 4, "float32")]))
    valid("rank_above_need", Batch(2, [ragged("a", [tensor("int8", [1, 2]), tensor("int8", [1], ())], 3, "int8", rank=3)]))
    rank0 = ragged("a", [tensor("int8", [1], ()), N, tensor("int8", [2], ())], 3, "int8")
    rank0.bufs = sorted(rank0.bufs + u8s(5, [0, 0, 0]), key=lambda b: (b.role, b.dim))
    valid("rank_0_with_ndims", Batch(3, [rank0]))
    types = blob_types(ragged("a", [tensor("int8", [1]), tensor("int8", [2])], 3, "int8"), [0x30, 0])
    valid("types_that_repeat_the_form", Batch(2, [types, blob_types(media_list("m", [[b"a"], [b"b"]]), [0x50, 0])]))
    negative = media("m", [Media(b"a", width=0), Media(b"b", height=3, rate=-1.0)])
    negative.children = [ndarray("height", [-1, 3], "int64"), ndarray("width", [0, -2**63], "int64"), ndarray("rate", [N, -1.0], "float64")]
    valid("media_negative_attributes", Batch(2, [negative]))
    media_attribute = media("m", [Media(b"a", height=1), N])
    media_attribute.children.append(blob("shot", ["x", N], 8))
    valid("media_unknown_attribute", Batch(2, [media_attribute]))
    odd = media("m", [Media(b"a", height=1), N])
    odd.children = [ndarray("height", [1.5, N], "float64")]
    odd.cells = [Media(b"a"), N]
    valid("media_odd_attribute", Batch(2, [odd]))
    odd = media("m", [Media(b"a", height=1, rate=2.0), N, Media(b"b", height=0)])
    odd.children[0] = blob_types(odd.children[0], [1, 0, 0x20])
    odd.children[1] = blob_types(odd.children[1], [2, 0, 0])
    valid("media_attribute_types", Batch(3, [odd]))
    odd = media("m", [Media(b"a"), N])
    odd.children = [ndarray("width", [scalar("int64", 1), N], "int64"), ndarray("height", [array("int64", [5]), N], "int64", (1,)), ndarray("channels", [3, N], "int32"),
                    ndarray("rate", [1, N], "int64"), blob("mime", [b"image/png", N], 5), blob("mode", ["RGB", N], 9), dict_like("other", 2)]
    valid("media_no_attributes", Batch(2, [odd]))
    odd = media_list("l", [[Media(b"a", mime="x"), b"b"], N, [Media(b"c")]])
    odd.children.append(ndarray("height", [scalar("int64", v) for v in (1, 2, 3)], "int64"))
    valid("media_list_no_attribute", Batch(3, [odd]))
    ws = blob("j", [1, [1, {"a": 2.0}], "\u00e9/\U0001f600", 0, [-0.0, 100.0, 10**30]], 9,
              [b" 1\n", b"[ 1 ,\t{ \"a\" : 2e0 } ]\r", b'"\\u00E9\\/\\ud83d\\ude00"', b"-0", b"[-0e0,1E+2,1000000000000000000000000000000]"])
    deep = blob("d", [Shown("[" * 512 + "]" * 512)] + [1] * 4, 9, [b"[" * 512 + b"]" * 512] + [b"1"] * 4)
    valid("json_lax", Batch(5, [ws, deep]))
    lax = [(b"\xcd\x00\x01", 1), (b"\xd3" + bytes(7) + b"\1", 1), (b"\xdb\0\0\0\1x", "x"), (b"\xc6\0\0\0\1x", b"x"), (b"\xdd\0\0\0\1\xc0", [N]), (b"\xdf\0\0\0\1\xc0\xc0", {N: N}),
           (b"\xca\x3f\xc0\0\0", 1.5), (b"\xca\x7f\xc0\0\1", Float(0x7FF8000020000000)), (b"\xc9\0\0\0\x14\1" + b"18446744073709551616", 2**64),
           (b"\x91" * 511 + b"\x90", Shown("[" * 512 + "]" * 512)), (b"\xc7\2\3\x80x", Media(b"x")), (b"\xd2\xff\xff\xff\xff", -1), (b"\xca\xff\x80\0\0", -math.inf),
           (b"\x82\xca\x3f\x80\0\0\1\1\2", {Key(1.0): 1, Key(1): 2})]
    big = [(b"\xc7\x16\1%d" % n, n) for n in (2**70, 2**71)]
    valid("msgpack_big_keys", Batch(1, [blob("m", [{Key(n): 1 for _, n in big}], 10, [b"\x82" + b"".join(raw + b"\1" for raw, _ in big)])]))
    valid("msgpack_lax", Batch(len(lax), [blob("m", [v for _, v in lax], 10, [r for r, _ in lax])]))


def dict_like(name, rows):
    return blob(name, [{"a": 1}] * rows, 9)


def forms_ndarray(name, dtype, types):
    col = ndarray(name, list(range(len(types))), dtype)
    col.bufs = sorted(col.bufs + [Buf(8, U8, len(types), bytes(types))], key=lambda b: (b.role, b.dim))
    col.cells = [Tensor(t >> 4, dtype, (), pack(dtype, v)) if t else v for v, t in zip(col.cells, types)]
    return col


def blob_types(col, types):
    col.bufs = sorted([b for b in col.bufs if b.role != 8] + [Buf(8, U8, len(types), bytes(types))], key=lambda b: (b.role, b.dim))
    return col


def rich_columns():
    return [infer("a", [1, N, 3, M, 5]),
            infer("s", ["ab", N, "\u00e9", M, ""]),
            infer("d", [{"x": 1, "y": "p"}, N, {"x": 2}, M, {"y": "q"}]),
            infer("l", [[{"k": 1}, {"k": 2}], N, [], M, [{"k": 3}]]),
            infer("t", [tensor("float32", [1, 2], (2, 1)), N, tensor("float32", [3]), M, tensor("float32", [4], ())]),
            infer("m", [[Media(b"xy", mime="a/b"), b"z"], N, [], M, [b"w"]]),
            infer("b", [[True], [1, 2], N, M, []])]


def rich(stored=True, **options):
    """A batch with a bit of everything; every buffer stored, so that every element has a place of its own."""
    cols, vals = rich_columns(), [infer("v", [{"x": 1}]), infer("w", ["text"])]
    for col in (cols + vals if stored else ()):
        col.store()
    cols[0].meta = {"unit": "m"}
    return Batch(5, cols, vals, {"k": "v", "l": "w"}, **options)


def valid_fragments():
    """Three fragments, the manifest that lists them, and one that says the same with constants, sequences and more fields than it needs."""
    token, fragments = bytes(range(16, 32)), {}
    fragments["fragment_rows_0"] = Batch(2, [infer("tokens", [tensor("int64", [1, 2, 3]), tensor("int64", [])]), infer("text", ["a", N])], [infer("step", [7])], token=token)
    fragments["fragment_rows_1"] = Batch(1, [infer("text", ["c"]), infer("tokens", [tensor("int64", [4])])], [infer("step", [7])], token=token)
    fragments["fragment_fields"] = Batch(3, [infer("reward", [0.5, 1.0, -1.0])], token=token)
    numbers = {"length": [], "head_length": [], "first_row": [0, 2, 0], "rows": [2, 1, 3]}
    checksums = []
    for name, batch in fragments.items():
        valid(name, batch)
        total, head, index = struct.unpack_from("<QQQ", batch.bytes, 24)
        numbers["length"].append(total)
        numbers["head_length"].append(head + index)
        checksums += struct.unpack_from("<I", batch.bytes, 60)
    cols = [blob("key", list(fragments), 8)] + [ndarray(n, v, "uint64") for n, v in numbers.items()]
    cols += [ndarray("head_checksum", checksums, "uint32"), ndarray("appends", [0, 0, 1], "uint8")]
    valid("manifest_fragments", Batch(3, cols, kind=2))
    count = 20
    odd = [ndarray("appends", [0] * count, "uint8").store("constant"), ndarray("first_row", list(range(0, 3 * count, 3)), "uint64").store("sequence"),
           ndarray("rows", [3] * count, "uint64").store("constant"), ndarray("head_checksum", list(range(count)), "uint32"), infer("note", ["x", N] * (count // 2)),
           ndarray("length", [1024] * count, "uint64").store("constant"), ndarray("head_length", [512] * count, "uint64").store("constant"),
           blob("key", ["fragment"] * count, 8)]
    valid("manifest_odd", Batch(count, odd, [infer("generation", [4])], {"made": "by hand"}, kind=2))


def valid_layouts():
    valid("everything_stored", rich())
    valid("everything_canonical", rich(False), canonical=True)
    valid("without_checksums", rich(checksums=False))
    valid("alignment_4096", Batch(2, [infer("a", ["x" * 30, "y"])], exponent=12))
    valid("alignment_128", rich(exponent=7))
    valid("larger_strides", rich(strides=(80, 72, 40, 8), junk=0xEE))
    valid("version_minor_7", rich(False, minor=7))
    valid("profile_1", rich(False, profile=1))
    valid("profile_unknown", rich(False, profile=65535))
    valid("optional_features", rich(False, optional=0xFFFFFFFE))
    valid("row_order_token", rich(False, token=bytes(range(1, 17))))
    manifest = [blob("key", ["fragment-0", "fragment-1"], 8)] + [ndarray(n, v, "uint64") for n, v in
                (("length", [4096, 8192]), ("head_length", [512, 1024]), ("first_row", [0, 100]), ("rows", [100, 50]))]
    valid("manifest", Batch(2, manifest + [ndarray("head_checksum", [0x12345678, 0x9ABCDEF0], "uint32"), ndarray("appends", [0, 0], "uint8")], kind=2))
    valid_fragments()
    valid("stored_though_short", Batch(3, [infer("a", [1, 2, 3]).store(), infer("s", ["a", N, "b"]).store()]))
    valid("inline_though_equal", Batch(2, [infer("a", [1, 1]).store("inline")]))
    valid("constant_though_short", Batch(2, [infer("a", [1, 1]).store("constant"), infer("b", [True, True]).store("constant"), infer("e", [N, "x"]).store("constant", "data")]))
    valid("sequence_data", Batch(20, [ndarray("up", list(range(-5, 15)), "int64").store("sequence"), ndarray("down", list(range(2**64 - 1, 2**64 - 21, -1)), "uint64").store("sequence")]))
    valid("sequence_edges", Batch(2, [ndarray("i", [-2**63, -1], "int64").store("sequence"), ndarray("u", [2**64 - 1, 2**63], "uint64").store("sequence"),
                                      ndarray("z", [3, 3], "int64").store("sequence")]))
    all_ones = infer("a", [1, 2, 3])
    all_ones.bufs += [Buf(6, BIT, 3, bits([1, 1, 1])), Buf(7, BIT, 3, bits([0, 0, 0]))]
    valid("needless_masks", Batch(3, [all_ones]))
    zero_types = blob_types(infer("a", [1, 2, 3]), [0, 0, 0])
    valid("needless_types", Batch(3, [zero_types]))
    text = ["word%d" % (i % 5) for i in range(20)]
    twice = [infer("a", text).store("stored"), infer("b", text).store("stored")]
    valid("stored_though_the_same", Batch(20, twice))
    first, second = infer("a", [1, 2]).store(), ndarray("b", [1, 2], "int64").store("alias")
    valid("alias_of_short", Batch(2, [first, second]))
    huge = constant_column("c", "uint8", 3, 7)
    valid("constant_ndarray", Batch(3, [huge]))
    valid("zero_length_stored", Batch(0, [blob("s", [], 8).store(), ndarray("a", [], "int8").store()]))
    valid("depth_64", Batch(1, [deep_dicts(64)]))
    logical = ndarray("t", [0, 1], "int64")
    logical.logical, logical.parameter = 1, "ns, UTC"
    unknown_logical = ndarray("u", [0, 1], "int64")
    unknown_logical.logical = 77
    valid("logical_types", Batch(2, [logical, unknown_logical]))
    valid("empty_strings_in_lists", Batch(2, [infer("a", [[[]], [[{}]]])]))
    valid("shared_names", Batch(1, [infer("a", [{"a": {"a": 1}}])], [infer("a", [{"a": 2}])]))
    valid("types_constant", Batch(40, [blob_types(ndarray("a", [True] * 40, "int64"), [1] * 40).store("constant")]))


def constant_column(name, dtype, count, value):
    col = ndarray(name, [value] * count, dtype)
    return col.store("constant")


def deep_dicts(depth):
    col = ndarray("x", [1], "int64")
    for _ in range(depth - 1):
        col = dict_node("x", [{"x": col.cells[0]}], [col])
    return col


def valid_unknown():
    """What a reader does not know makes a leaf unreadable and nothing else."""
    def batch(col, error, rows=3, **options):
        return Batch(rows, [infer("before", [1, 2, 3][:rows]), unreadable(col, error), infer("after", ["a", N, "b"][:rows])], **options)

    codec = blob("u", [N, M, b"xyz"], 200)
    codec.form, codec.rank, codec.parameter = 77, 8, "unknown"
    codec.children = [unreadable(dict_node("part", [{}, {}, {}], []), "CODEC")]
    valid("unknown_codec", batch(codec, "CODEC"))
    bare = Col("u", 1, [1, 2, 3], 12, (99, 24, 3), bufs=[Buf(1, (99, 24, 3), 5, bytes(range(45))), Buf(4, U64, 1, bytes(8))])
    bare.rank = 1
    valid("unknown_codec_bare", batch(bare, "CODEC"))
    role = infer("u", ["a", "bc", N])
    role.bufs.append(Buf(13, U64, 2, bytes(16)))
    valid("unknown_role_13", batch(role, "ROLE"))
    role = infer("u", [1, 2, 3])
    role.bufs.append(Buf(77, (55, 13, 2), 9, bytes(30), storage="stored"))
    valid("unknown_role_stored", batch(role, "ROLE"))
    role = Col("u", 1, [1, 2, 3], 8, U8, bufs=[Buf(13, U64, 3, bytes(24)), Buf(14, (1, 16, 1), 3, bytes(6), storage="stored")])
    valid("unknown_role_alone", batch(role, "ROLE"))
    packed = infer("u", ["a", "bc", "d"])
    packed.bufs[0].packing, packed.bufs[0].storage, packed.bufs[0].raw = 2, "stored", b"payload"
    valid("unknown_packing_data", batch(packed, "PACKING"))
    packed = infer("u", ["a", "bc", "d"])
    packed.bufs[1].packing, packed.bufs[1].storage, packed.bufs[1].raw = 9, "stored", b"packed offsets"
    valid("unknown_packing_offsets", batch(packed, "PACKING"))
    node = infer("u", [{"a": 1}, N, {"a": 2}])
    node.bufs[0].packing, node.bufs[0].storage = 2, "stored"
    unreadable_dict = unreadable(node, "PACKING")
    valid("unknown_packing_of_a_dict", batch(unreadable_dict, "PACKING"))
    inner = infer("u", [{"a": 1, "b": 1}, N, {"b": 2}])
    inner.children[0].bufs[0].packing, inner.children[0].bufs[0].storage = 2, "stored"
    inner.cells = [{"a": Shown('{"$unreadable":"UNSUPPORTED_PACKING"}'), "b": 1}, N, {"a": Shown('{"$unreadable":"UNSUPPORTED_PACKING"}'), "b": 2}]
    valid("unknown_packing_inside", Batch(3, [inner]))
    for name, dtype, raw in (("decimal", (77, 128, 1), bytes(range(48))), ("int4", (0, 4, 1), b"\x21\x03"), ("lanes", (2, 32, 4), bytes(range(48))), ("float128", (2, 128, 1), bytes(48)),
                             ("bit", (1, 1, 1), b"\5")):
        col = Col("u", 1, [1, 2, 3], 2, dtype, bufs=[Buf(1, dtype, 3, raw)])
        valid("unknown_dtype_" + name, batch(col, "DTYPE"))
    for name, dtype, raw in (("bit", (1, 1, 1), b"\5"), ("bool16", (6, 16, 1), bytes(range(6)))):  # nobody asks whether an absent cell of such is zero
        data = Buf(1, dtype, 3, raw, storage="stored")
        data.packing, data.packed = 1, blocks.lay(raw, dtype, [blocks.plain()])
        valid("unknown_dtype_blocks_" + name, batch(Col("u", 1, [1, 2, N], 2, dtype, bufs=[data, Buf(6, BIT, 3, b"\3")]), "DTYPE"))
    col = Col("u", 1, [1, 2, 3], 4, (17, 4, 1), 2, 1, bufs=[Buf(1, (17, 4, 1), 5, b"\x21\x43\x05"), u64s(2, [0, 2, 2, 5])])
    valid("unknown_dtype_ragged", batch(col, "DTYPE"))


def valid_shared():
    """Row sharing and shared prefixes, whatever a profile 0 encoder would do."""
    for name, col in stored_columns():
        valid("shared_" + name, Batch(7, [repeat(col, 1, 0, N, 1, M, 2, 0).store(), repeat(col, 0, 0, 0, 0, 0, 0, 0, name="d"), repeat(col, *range(3), N, N, N, N, name="e")]))
    text, words = blob("", ["ab", "", "c"], 8), blob("", ["only"], 8)
    texts = repeat(text, 2, N, 0, N, M, name="x")
    numbers = repeat(ndarray("y", [5, 7], "int64"), 1, N, 1, N, 0)
    cells = [{"x": "c", "y": 7}, N, {"x": "ab", "y": 7}, {"x": N, "y": N}, {"y": 5}]
    valid("shared_in_a_dict", Batch(5, [dict_node("d", cells, [texts, numbers])]))
    items = [repeat(text, 0, 2, N, 0, N), repeat(words, 0, M, N, N, M)]
    valid("shared_in_a_list", Batch(5, [list_node("l", [["ab", "only"], ["c"], N, ["ab", N], [N]], items)]))
    photos = [Media(b"xy", mime="a/b", height=1), Media(b"z", mode="RGB"), N, Media(b"xy", rate=2.0), Media(b"xy", mime="a/b", height=3), M]
    col = shared(blob("m", [Media(b"xy"), Media(b"z")], 6), photos, [0, 1, 0, 0, 0, 0])
    valid("shared_media_attributes", Batch(6, [col]))
    col = media("m", [Media(b"a", mime="a/b", height=4), N, Media(b"b", mime="a/b", height=4), Media(b"c", height=5)])
    col.children = [repeat(blob("mime", ["a/b"], 8), 0, N, 0, N), repeat(ndarray("height", [5, 4], "int64"), 1, N, 1, 0)]
    valid("shared_attribute_leaves", Batch(4, [col]))
    lists = media_list("m", [[Media(b"xy", mime="a/b"), b"z"], [], [Media(b"", mime="c/d"), Media(b"q", mime="a/b")]])
    lists.children = [repeat(blob("mime", ["c/d", "a/b"], 8), 1, N, 0, 1)]
    valid("shared_list_attribute_leaves", Batch(4, [repeat(lists, 2, 0, 2, 1)]))
    empty = [ndarray("n", [], "int8"), ndarray("a", [], "int16", (2, 3), 2), ragged("r", [], 3, "int8", rank=2), blob("s", [], 8), blob("j", [], 9), media_list("m", [], 5)]
    valid("shared_without_stored_rows", Batch(3, [repeat(col, N, M, N) for col in empty] + [repeat(prefixed(ragged("p", [], 4, "int8", 1, 1), []), N, N, M)]))
    valid("shared_without_rows", Batch(0, [repeat(col) for col in empty]))
    vast = ndarray("v", [], "int8", (2**63, 6), 2)  # of no row it takes no byte
    valid("vast_cells_without_rows", Batch(0, [vast, repeat(vast, name="s")]))
    word = blob("s", ["word%d" % i for i in range(40)], 8)
    valid("shared_constant_index", Batch(40, [repeat(blob("s", ["a", "b", "c"], 8), *[2] * 40), repeat(ndarray("z", [9], "int64"), *[0] * 40), repeat(ndarray("e", [9], "int64"), *[N] * 40)]))
    valid("shared_sequence_index", Batch(40, [repeat(word, *range(40)), repeat(word, *range(39, -1, -1), name="r"), repeat(blob("t", ["t%d" % i for i in range(20)], 8), *range(20), *[N] * 20).store("stored", "row_index")]))
    valid("shared_rows_without_a_row", Batch(3, [repeat(blob("s", ["x", "x", "unused"], 8), 1, 1, 0), repeat(ndarray("n", [1, 2, 3], "int8"), 0, 0, 0), repeat(blob("j", [1, {"a": 2}, [3]], 9), 2, 0, 0)]))
    grids = ragged("g", [tensor("int8", [1, 2], (2, 1)), tensor("int8", [], (0,)), tensor("int8", [3], ()), tensor("int8", [4, 5, 6])], 3, "int8")
    valid("shared_shapes", Batch(6, [repeat(grids, 3, 0, N, 2, 1, 0).store()]))
    marked = ndarray("f", [True, 2.5, 1], "float64")
    forms = forms_ndarray("g", "int8", [0x20, 0x30, 0])
    valid("shared_types", Batch(5, [repeat(marked, 2, 0, 1, N, 2), repeat(forms, 1, 2, N, 0, 0), repeat(ragged("l", [[True], [1, 2], array("int64", [3])], 4, "int64"), 2, 1, 0, N, 0)]))
    bools = repeat(ndarray("b", [True, False], "bool"), 0, N, 1, 0, 1)
    ones = repeat(ndarray("o", [-1], "int8"), N, 0, 0, N, 0)
    valid("shared_absent_cells_keep_nothing", Batch(5, [bools, ones]))
    valid("shared_batch_value", Batch(0, [], [repeat(blob("v", ["text"], 8), 0), repeat(ndarray("n", [3], "int64"), N)]))
    valid("shared_index_alias", Batch(20, [repeat(blob("a", ["x%d" % i for i in range(6)], 8), *[i * i % 6 for i in range(20)]), repeat(blob("b", ["y%d" % i for i in range(6)], 8), *[i * i % 6 for i in range(20)]),
                                           repeat(ndarray("n", list(range(2, 8)), "int64"), *[i * i % 6 for i in range(20)])]))
    valid_prefixes()
    valid_shared_unreadable()


def stored_columns():
    """Three stored rows of each codec."""
    yield "ndarray", ndarray("c", [1, -2, 3], "int32")
    yield "ndarray_of_arrays", ndarray("c", [array("int16", [i, i + 1]) for i in range(3)], "int16", (2,))
    yield "ragged_tensor", ragged("c", [tensor("float32", [1, 2]), tensor("float32", []), tensor("float32", [3])], 3, "float32")
    yield "typed_ragged", ragged("c", [[1, 2], [], [3]], 4, "int64")
    yield "bytes_ragged", blob("c", [b"ab", b"", b"\xff"], 5)
    yield "media_bytes", media("c", [Media(b"ab", mime="a/b"), Media(b"", mime="a/b"), Media(b"c", mime="c/d")])
    yield "media_list_ragged", media_list("c", [[Media(b"xy", mime="a/b"), b"z"], [], [Media(b"w", height=2)]])
    yield "utf8_ragged", blob("c", ["ab", "", "\u00e9"], 8)
    yield "json_ragged", blob("c", [{"a": [1]}, 1, "x"], 9)
    yield "msgpack_ragged", blob("c", [{1: b"x"}, 1, "x"], 10)
    yield "opaque_ragged", blob("c", [Opaque("pickle", b"ab"), Opaque("pickle", b""), Opaque("pickle", b"c")], 11, parameter="pickle")


def growing(name, lengths, dtype="int16", codec=3):
    """Rows that are all the beginning of one another."""
    return ragged(name, [N if n is None else (tensor if codec == 3 else array)(dtype, list(range(100, 100 + n))) for n in lengths], codec, dtype, rank=1)


def valid_prefixes():
    before = prefixed(growing("p", [5, 3, 7]), [N, (0, 3), (0, 5)])
    after = prefixed(growing("p", [1, 3, 7, 2]), [(2, 1), (2, 2), N, (2, 2)])
    valid("prefix_leader_before", Batch(3, [prefixed(growing("s", [5, 3, 7]), [N, (0, 3), (0, 5)]).store(), before]))
    valid("prefix_leader_after", Batch(4, [prefixed(growing("s", [1, 3, 7, 2]), [(2, 1), (2, 2), N, (2, 2)]).store(), after]))
    valid("prefix_absent_cells", Batch(5, [prefixed(growing("p", [N, 4, 6, N, 2]), [N, (2, 3), N, N, (2, 1)]), prefixed(growing("q", [N] * 5), [N] * 5)]))
    valid("prefix_is_the_whole_cell", Batch(4, [prefixed(growing("p", [4, 4, 0, 2]), [N, (0, 4), N, (0, 2)]).store()]))
    valid("prefix_leaders", Batch(6, [prefixed(growing("p", [3, 5, 5, 2, 4, 4]), [(2, 1), N, N, (1, 2), (5, 4), N])]))
    lists = ragged("l", [[1, 2, 3], [1, 2], [1, 2, 4]], 4, "int64")
    bools = ragged("b", [[True, False], [True], [True, False, True]], 4, "bool")
    floats = ragged("f", [[Float(0x7FF8000000000001), -0.0], [Float(0x7FF8000000000001)], []], 4, "float64")
    valid("prefix_typed_ragged", Batch(3, [prefixed(lists, [N, (0, 2), (0, 2)]), prefixed(bools, [N, (0, 1), (0, 2)]), prefixed(floats, [N, (0, 1), N]),
                                           prefixed(growing("a", [4, 2, 2], "uint8", 4), [N, (0, 1), (0, 2)])]))
    valid("prefix_of_none", Batch(40, [prefixed(growing("p", [i % 3 for i in range(40)]), [N] * 40), prefixed(growing("q", [2] * 40), [N] * 40).store("constant", "prefix_row", "prefix_length")]))
    valid("prefix_computed", Batch(20, [prefixed(growing("p", [20 + i for i in range(20)]), [N] + [(0, i) for i in range(1, 20)]), prefixed(growing("q", [30] + [8] * 19), [N] + [(0, 5)] * 19)]))
    seen = prefixed(growing("p", [3, 6, 2, 6]), [(1, 3), N, (1, 2), (1, 4)])
    valid("shared_rows_and_prefixes", Batch(9, [repeat(seen, 0, 1, 2, N, 3, 3, 2, M, 0).store(), repeat(seen, *[0] * 9, name="q"), repeat(prefixed(lists, [N, (0, 2), (0, 1)]), 2, 2, 2, 1, 1, 1, 0, N, 0)]))
    twice = [1, 0, 0, 1, 0, 0, 1, 1]
    col = prefixed(growing("p", [9, 9, 8, 8, 8, 8, 8, 8]), [N, N, *[(r, 2 + i) for i, r in enumerate(twice[2:])]])
    index = [0, 0, *twice[2:]]
    valid("prefix_row_alias", Batch(8, [repeat(ndarray("n", [5, 6], "int8"), *index), col]))


def valid_shared_unreadable():
    def batch(col, error):
        return Batch(3, [repeat(blob("before", ["a", "b"], 8), 1, 0, 1), unreadable(col, error), infer("after", ["a", N, "b"])])

    col = plus(blob("u", ["a", "bc", N], 8), u64s(10, [7, 7]), Buf(13, U64, 2, bytes(16)), u64s(11, [1]))
    valid("shared_beside_unknown_role", batch(col, "ROLE"))
    valid("shared_unknown_codec", batch(plus(Col("u", 1, [1, 2, 3], 200, U8), u64s(10, [9]), u64s(12, [1, 2])), "CODEC"))
    for role, name in ((10, "row_index"), (11, "prefix_row"), (12, "prefix_length")):
        col = repeat(prefixed(growing("u", [2, 1]), [N, (0, 1)]), 0, 1, N)
        col.bufs = [copy.copy(b) for b in col.bufs]
        for b in col.bufs:
            if b.role == role:
                b.packing, b.storage, b.raw = 2, "stored", b"payload"
        valid("unknown_packing_" + name, batch(col, "PACKING"))
    dtype = (17, 4, 1)
    col = Col("u", 1, [1, 2, 3], 4, dtype, 2, 1, bufs=[Buf(1, dtype, 5, b"\x21\x43\x05"), u64s(2, [0, 2, 5]), u64s(10, [1, 1, 0]), u64s(11, [1, 0]), u64s(12, [3, 0])])
    valid("shared_unknown_dtype", batch(col, "DTYPE"))


def tokens(row, n, top=151936):
    """n of a vocabulary's token ids, other ones for each row."""
    return [(row * 7919 + i * 104729 + row * i * 31) % top for i in range(n)]


def sentence(row, length):
    return ("row %d " % row + "".join(chr(97 + t % 26) + " " * (t % 5 == 0) for t in tokens(row, length)))[:length]


def valid_sharing():
    """What a profile 0 encoder shares: canonical vectors."""
    prompts = [array("int64", tokens(i // 8, 32)) for i in range(64)]
    valid("sharing_ndarray", Batch(64, [share(ndarray("prompts", prompts, "int64", (32,)))]), canonical=True)
    values("sharing_grpo", fields={"prompt": [tensor("int32", tokens(i // 8, 20 + i // 8 * 3)) for i in range(64)], "text": [sentence(i // 8, 100 + i // 8) for i in range(64)],
                                   "response": [tensor("int32", tokens(i + 100, i % 5)) for i in range(64)], "reward": [i % 2 for i in range(64)]})
    values("sharing_absent_cells", fields={"text": [(N if i % 9 == 5 else M if i % 11 == 7 else sentence(i % 5, 150)) for i in range(64)],
                                           "list": [N if i % 7 == 1 else tokens(i % 4, 30, 10) for i in range(64)]})
    lists = [[bytes(tokens(2 * i + j, 65 + i, 256)) for j in range(1 + i % 3)] for i in range(6)]
    lists += [[lists[0][0][:10], lists[0][0][10:]], [], [b""], [b"", b""]]  # the same bytes in other items
    values("sharing_media_lists", fields={"images": [lists[i % 10] for i in range(70)]})
    pixels = [bytes(tokens(i, 120, 256)) for i in range(3)]
    shots = [[Media(pixels[i % 3], mime=("image/png", "image/jpeg")[i % 5 == 1], height=8)] + [Media(pixels[2], width=i % 2), Media(b"x" * 9) if i % 4 else b"x" * 9][:i % 3] for i in range(60)]
    values("sharing_media_list_attributes", fields={"shots": shots})
    values("sharing_media", fields={"image": [N if i == 3 else Media(pixels[i % 3], mime=("image/png", "image/jpeg")[i % 2], height=i) for i in range(60)]})
    mimes = [sentence(i, 110) for i in range(3)]
    values("sharing_attribute_leaves", fields={"image": [Media(b"%d" % i, mime=mimes[i % 3]) for i in range(60)],
                                               "shots": [[Media(bytes([i // 3, j]) * 20, mime=mimes[j]) for j in range(3)] for i in range(60)]})
    values("sharing_bytes", fields={"raw": [pixels[i * i % 3] for i in range(44)], "state": [Opaque("pickle", pixels[i % 2]) for i in range(44)]})
    grid, flags = tokens(1, 12, 100), [True, False, True] * 12
    values("sharing_shapes_and_types", fields={
        "grid": [tensor("int64", grid, [(3, 4), (4, 3), (12,), (2, 2, 3)][i % 4]) for i in range(56)],
        "marked": [(flags, [int(v) for v in flags])[i % 2] for i in range(56)], "formed": [(grid, array("int64", grid))[i % 2] for i in range(56)],
        "zeros": [([1.0] * 11 + [0.0], [1.0] * 11 + [-0.0])[i % 2] for i in range(56)]})
    values("sharing_nested", fields={"turn": [N if i % 13 == 4 else {"prompt": sentence(i % 4, 160), "n": i} for i in range(60)], "list": [[{"k": sentence(i % 3 + 9, 170)}, {}][:i % 2 + 1] for i in range(60)]})
    values("sharing_not_json", fields={"json": [[sentence(i % 2, 200)] for i in range(24)], "msgpack": [{1: sentence(i % 2, 200)} for i in range(24)], "short": [sentence(i % 2, 40) for i in range(24)]})
    values("sharing_all_the_same", fields={"zeros": [[0] * 530, [0] * 530, N], "almost": [[0] * 529 + [1]] * 2 + [N], "text": ["a" * 4130] * 2 + [N]})
    pair = Tensor(4, "complex128", (), struct.pack("<2d", 1.5, -2))
    values("sharing_same_but_absent", fields={"c": [N if i == 17 else pair for i in range(520)]})
    valid_sharing_prefixes()
    valid_sharing_thresholds()
    valid_sharing_samples()


def valid_sharing_prefixes():
    def turns(trajectory, steps, step):
        return [tokens(trajectory, (i + 1) * step, 10) for i in range(steps)]

    values("sharing_agent", fields={"tokens": [tensor("int32", t) for k in range(4) for t in turns(k, 5, 40)], "up": [t for k in range(4) for t in turns(k + 7, 5, 35)],
                                    "down": [t for k in range(4) for t in reversed(turns(k + 20, 5, 35))]})
    values("sharing_agent_absent_turns", fields={"tokens": [N if i % 6 == 5 else array("uint8", turns(i // 6, 5, 150)[i % 6]) for i in range(24)]})
    values("sharing_agent_repeated", fields={"tokens": [t for k in range(2) for t in turns(k, 4, 60) for _ in range(3)], "late": [N if r == 11 else turns(k, 4, 60)[i] for r in range(3) for k in range(2) for i in range(4)]})
    ones = [i % 3 for i in range(531)]
    values("sharing_prefixes_not_allowed", fields={"grid": [tensor("int64", ones[:530], (1, 530)), tensor("int64", ones, (1, 531)), N], "ranks": [ones[:530], ones, [[1]]], "types": [ones[:530], ones, [True]], "text": ["ab" * 2070, "ab" * 2070 + "x", N]})


def valid_sharing_thresholds():
    """Each bound met, and missed by one."""
    def lines(same, rest, letter):
        return [sentence(letter, same)] * 2 + [sentence(letter + 50, rest)]

    values("sharing_rows_threshold", fields={"saves_4095": lines(4119, 0, 1), "saves_4096_a_quarter": lines(4120, 8144, 2), "saves_less": lines(4120, 8145, 3)})

    def run(seed, *parts):
        """The beginning of one list, then elements that differ."""
        line = tokens(seed, 600, 10)
        return [line[:n] + [10 + i] * (n < size) + tokens(seed + i + 1, max(0, size - n - 1), 10) for i, (n, size) in enumerate(parts)]

    values("sharing_prefix_threshold", fields={"saves_4096": run(1, (518, 520), (518, 519), (0, 1)), "saves_4088": run(2, (517, 520), (517, 519), (0, 1)),
                                               "joins": run(3, (550, 550), (550, 552), (275, 280)), "begins": run(4, (550, 550), (550, 552), (274, 280)),
                                               "leader_last": run(5, (300, 310), (300, 310), (540, 550))})
    values("sharing_prefix_64_bytes", fields={"common_64": run(6, *[(8, 9)] * 90), "common_56": run(7, *[(7, 9)] * 90)})
    line = [i * i % 251 for i in range(4200)]
    values("sharing_prefix_63_bytes", fields={"common_63": [array("uint8", x) for x in (line, line + [252], line[9:80], line[9:72] + [253], line[99:180], line[99:163] + [253])]})

    def long(seed, rest):
        line = tokens(seed, 518, 10)
        return [line, line + [11], [12] * 8 + tokens(seed + 1, rest - 8, 10)]

    values("sharing_prefix_eighth", fields={"saves_an_eighth": long(1, 4096 - 518 - 519), "saves_less": long(2, 4097 - 518 - 519)})


def valid_sharing_samples():
    """1030 rows whose repeats and prefixes the samples show, or do not."""
    def hidden(rows, turns, seed):
        """Repeats that so many turns of the walk meet, and many that it does not come to."""
        walk = list(sharing.walk(rows))
        met = [row for row in range(rows) if walk.count(row) == 1][:turns + 1] if turns else []
        return [sentence(seed, 36) if row not in walk or row in met else "%d" % row for row in range(rows)]

    values("sharing_sampled_rows", fields={"met_4": hidden(1030, 4, 1), "met_3": hidden(1030, 3, 2)})
    values("sharing_1024_rows", fields={"text": hidden(1024, 0, 1)})

    def runs(turns):
        """Runs of rows with a common beginning; the sample meets so many rows that continue one."""
        places = sharing.places(1030)
        rows, members = [[row] if row in places else [] for row in range(1030)], 0
        met = [row for row in range(20, 100) if places.count(row) == 1 and row - 1 not in places][:turns]
        for row in met:
            rows[row - 1], rows[row] = [row % 10] * 60 + [row - 1], [row % 10] * 60 + [row]
        row = 100
        while members < 45:
            end = next(i for i in range(row, 1030) if i in places)
            if end - row >= 4:
                members += end - row - 1
                rows[row:end] = [[row % 10] * 60 + [i] for i in range(row, end)]
            row = end + 1
        return rows

    values("sharing_sampled_prefixes", fields={"met_1": runs(1), "met_0": runs(0)})


# ---- invalid vectors ---------------------------------------------------------------------------------------------------------------------


def invalid(name, batch, rule, at, why, *pokes, seal=True):
    """pokes: (place, struct format, values...) on a valid batch, or nothing where the batch is wrong already."""
    assert name not in INVALID, name
    b = batch if isinstance(batch, Batch) else None
    if b:
        for place, fmt, *fields in pokes:
            b.poke(place, fmt, *fields)
        if seal:
            b.seal()
    level = {"I": "index", "D": "full"}.get(rule[0], "head")
    INVALID[name] = bytes(b.bytes if b else batch), level, rule, at, why


def simple():
    """Two rows of three columns with stored data, one string per name; head, index and data lengths are odd multiples of 64 in part."""
    return Batch(2, [ndarray("a", [1, 2], "int64").store()])


def u64_at(b, at):
    return struct.unpack_from("<Q", b.bytes, at)[0]


def invalid_header():
    b = rich()
    starts = sorted({u64_at(b, b.buffer(i, 24)) for i in range(len(b.bufs))})
    cuts = {"nothing": 0, "magic": 8, "half_header": 63, "file_header": 64, "one_short_of_directory": 127}
    for name, cut in cuts.items():
        invalid("h1_" + name, b.bytes[:cut], "H1", cut, "cut after %d bytes" % cut)
    cuts = {"directory": 128, "one_node": b.node(1), "half_a_node": b.node(1) + 31, "nodes": b.bufs_at, "one_buffer": b.buffer(1), "buffers": b.meta_at, "metadata": b.names_at,
            "names": b.strings_at, "strings": b.strings_end, "head": b.head_length, "checksums": b.head_length + 4, "index": b.data_at, "one_byte": b.total - 1,
            "index_buffer": starts[3], "last_buffer": starts[-1]}
    for name, cut in cuts.items():
        invalid("h8_" + name, b.bytes[:cut], "H8", cut, "cut after: " + name)
    b = simple()
    invalid("h2_magic", simple(), "H2", 0, "magic", (0, "B", 0x88))
    invalid("h2_magic_last_byte", simple(), "H2", 0, "magic", (7, "B", 0x1B))
    invalid("h2_text_mode", simple(), "H2", 0, "CR LF became LF LF", (5, "B", 0x0A))
    for major in (0, 2, 257):
        invalid("h3_major_%d" % major, simple(), "H3", 8, "version_major", (8, "H", major))
    for bit in (0, 17, 31):
        invalid("h4_bit_%d" % bit, simple(), "H4", 16, "required_features", (16, "I", 1 << bit))
    for kind in (0, 3):
        invalid("h5_kind_%d" % kind, simple(), "H5", 12, "kind", (12, "B", kind))
    for exponent in (0, 5, 13, 64, 255):
        invalid("h6_exponent_%d" % exponent, simple(), "H6", 13, "alignment exponent", (13, "B", exponent))
    invalid("h7_exponent_12", simple(), "H7", 32, "lengths are not multiples of the alignment", (13, "B", 12))
    for name, at, value in (("head_64", 32, 64), ("head_zero", 32, 0), ("head_odd", 32, b.head_length + 1), ("head_beyond_total", 32, b.total + 64), ("head_huge", 32, 2**64 - 64),
                            ("index_odd", 40, 1), ("index_beyond_total", 40, b.total), ("index_huge", 40, 2**64 - 64), ("total_odd", 24, b.total + 1)):
        invalid("h7_" + name, simple(), "H7", at, name, (at, "Q", value))
    invalid("h7_total_small", simple(), "H7", 32, "head beyond the total", (24, "Q", 128))
    invalid("h8_total_larger", simple(), "H8", b.total, "total_length is larger than the file", (24, "Q", b.total + 64))
    invalid("h8_total_huge", simple(), "H8", b.total, "total_length 2^64 - 64", (24, "Q", 2**64 - 64))
    invalid("h9_one_byte", b.bytes + b"\0", "H9", b.total, "a byte after the end")
    invalid("h9_total_smaller", simple(), "H9", b.total - 64, "total_length is smaller than the file", (24, "Q", b.total - 64))
    for name, at, fmt, value in (("nodes", 64, "I", 2**20 + 1), ("buffers", 68, "I", 2**22 + 1), ("metadata", 72, "I", 2**16 + 1), ("rows", 48, "Q", 2**48 + 1), ("strings", 88, "Q", 2**32),
                                 ("strings_huge", 88, "Q", 2**64 - 1)):
        invalid("h10_" + name, simple(), "H10", at, "beyond the limit", (at, fmt, value))
    invalid("h11_checksum", simple(), "H11", 60, "head checksum", (60, "B", b.bytes[60] ^ 1), seal=False)
    invalid("h11_head_bit", simple(), "H11", 60, "a bit of the strings", (b.strings_at, "B", b.bytes[b.strings_at] ^ 2), seal=False)
    invalid("h11_header_bit", simple(), "H11", 60, "a bit of version_minor", (10, "B", 1), seal=False)
    for at, values in ((80, (0, 56, 65, 68)), (82, (0, 56, 66)), (84, (0, 24, 36)), (86, (0, 2, 6))):
        for v in values:
            invalid("h12_%d_%d" % (at, v), simple(), "H12", at, "stride %d" % v, (at, "H", v))
    for at in (124, 127):
        invalid("h13_%d" % at, simple(), "H13", 124, "directory zero bytes", (at, "B", 1))
    for name, at, fmt, value in (("nodes", 64, "I", 2), ("no_nodes", 64, "I", 0), ("buffers", 68, "I", 2), ("metadata", 72, "I", 4), ("names", 76, "I", 4000), ("names_all", 76, "I", NONE),
                                 ("strings", 88, "Q", 300), ("node_stride", 80, "H", 128), ("buffer_stride", 82, "H", 65528)):
        invalid("h14_" + name, simple(), "H14", 32, name, (at, fmt, value))
    longer = simple()
    head = longer.head_length
    longer.bytes[head:head] = bytes(64)
    longer.poke(24, "QQ", longer.total + 64, head + 64)
    longer.total, longer.data_at, longer.head_length = longer.total + 64, longer.data_at + 64, head + 64
    invalid("h14_head_longer", longer, "H14", 32, "64 zero bytes more in the head")
    for name, at in (("first", b.strings_end), ("last", b.head_length - 1)):
        invalid("h15_" + name, simple(), "H15", at, "padding of the head", (at, "B", 1))
    invalid("h15_strings_length", simple(), "H15", b.strings_end - 1, "a string byte beyond strings_length", (88, "Q", b.strings_end - b.strings_at - 1))
    # each field of header and directory with its lowest bit flipped: those no other vector has
    invalid("flip_optional", simple(), "B12", 40, "data checksums are there and not announced", (20, "I", 0))
    invalid("flip_rows", simple(), "N9", b.node("a", 48), "rows", (48, "Q", 3))
    invalid("flip_names_more", simple(), "S1", 76, "one name too many, in the padding", (76, "I", 2))
    invalid("flip_field_count", simple(), "N15", 96, "field_count", (96, "I", 0))
    invalid("flip_value_count", simple(), "N15", 100, "value_count", (100, "I", 1))
    invalid("flip_index_longer", simple(), "B11", b.buffer(0, 24), "index_length includes the data", (40, "Q", 128))
    invalid("flip_index_checksum", simple(), "I1", 56, "index_checksum", (56, "I", 0), seal=False)
    fix_head(INVALID, "flip_index_checksum")


def fix_head(vectors, name):
    raw = bytearray(vectors[name][0])
    head, = struct.unpack_from("<Q", raw, 32)
    struct.pack_into("<I", raw, 60, crc32c(raw[:60] + bytes(4) + raw[64:head]))
    vectors[name] = (bytes(raw), *vectors[name][1:])


def invalid_nodes():
    def bad(name, rule, path, field, why, fmt, *fields, poke=None, base=rich):
        b = base()
        invalid(name, b, rule, b.node(path, field), why, (b.node(path, field if poke is None else poke), fmt, *fields))

    for kind in (0, 4, 255):
        bad("n1_kind_%d" % kind, "N1", "a", 22, "kind %d" % kind, "B", kind)
    bad("n1_scope_2", "N1", "a", 23, "scope 2", "B", 2)
    bad("n1_child_scope", "N1", "d.x", 23, "scope of a child", "B", 1)
    b = Batch(1, [infer("a", [1]), infer("b", [2])])
    invalid("n1_scope_order", b, "N1", b.node("b", 23), "a field after a batch value", (b.node("a", 23), "B", 1))
    bad("n2_parent_at_top", "N2", "a", 0, "a parent at the top", "I", 0)
    bad("n2_parent_none", "N2", "d.x", 0, "no parent inside a dict", "I", NONE)
    bad("n2_parent_sibling", "N2", "d.y", 0, "the sibling as parent", "I", 3)
    bad("n2_parent_beyond", "N2", "d.y", 0, "a parent beyond the table", "I", 1000)
    bad("n2_descendants_table", "N2", "w", 4, "descendants beyond the table", "I", 1)
    bad("n2_descendants_huge", "N2", "a", 4, "descendants beyond the table", "I", NONE)
    bad("n2_descendants_parent", "N2", "d.y", 4, "descendants beyond the parent's", "I", 1)
    b = rich()
    invalid("n2_descendants_fewer", b, "N2", b.node("d.y", 0), "a child that its parent does not count", (b.node("d", 4), "I", 1))
    b = Batch(1, [deep_dicts(65)])
    invalid("n3_depth_65", b, "N3", b.node(64), "65 nodes on a path")
    leaf = infer("a", [1, 2])
    leaf.children = [infer("c", [1, 2])]
    b = Batch(2, [leaf])
    invalid("n4_ndarray_with_child", b, "N4", b.node("a.c", 22), "a child of an ndarray")
    leaf = blob("a", [{}, {}], 9)
    leaf.children = [dict_node("c", [{}, {}], [])]
    b = Batch(2, [leaf])
    invalid("n4_json_with_dict", b, "N4", b.node("a.c", 22), "a dict under json_ragged")
    leaf = media("a", [Media(b"x"), N])
    leaf.children = [dict_node("c", [{}, {}], [])]
    b = Batch(2, [leaf])
    invalid("n4_media_with_dict", b, "N4", b.node("a.c", 22), "a dict under media_bytes")
    for name, field, fmt, value in (("codec", 24, "B", 1), ("dtype_code", 25, "B", 1), ("dtype_bits", 26, "B", 8), ("form", 27, "B", 1), ("lanes", 28, "H", 1), ("rank", 30, "B", 1), ("logical", 31, "B", 1)):
        for kind, path in (("dict", "d"), ("list", "l")):
            bad("n5_%s_%s" % (kind, name), "N5", path, 24, name + " of a " + kind, fmt, value, poke=field)
    bad("n5_leaf_codec_0", "N5", "a", 24, "a leaf without codec", "B", 0)
    for dtype in ((1, 8, 1), (1, 0, 0), (0, 8, 0), (0, 0, 1)):
        b = Batch(2, [infer("n", [N, N])])
        invalid("n5_null_%d_%d_%d" % dtype, b, "N5", b.node("n", 24), "a null of dtype %d, %d, %d" % dtype, (b.node("n", 25), "BBBH", dtype[0], dtype[1], 0, dtype[2]))
    byte_leaves = {5: b"x", 6: Media(b"x"), 7: [b"x"], 8: "x", 9: {"$j": 1}, 10: {b"k": 1}, 11: Opaque("s", b"x")}
    for codec, cell in byte_leaves.items():
        for name, dtype in (("int8", (0, 8, 1)), ("none", (0, 0, 0)), ("2_lanes", (1, 8, 2))):
            leaf = infer_leaf("c", [cell], [cell]) if codec != 9 else blob("c", [cell], 9)
            b = Batch(1, [leaf])
            record = b.buffer("c", 8, "data")
            invalid("n5_codec_%d_%s" % (codec, name), b, "N5", b.node("c", 24), "codec %d of dtype %d, %d, %d" % (codec, *dtype),
                    (b.node("c", 25), "BBBH", dtype[0], dtype[1], leaf.form, dtype[2]), (record, "BBH", *dtype))
    bad("n6_44", "N6", "a", 44, "zero bytes", "B", 1)
    bad("n6_47", "N6", "a", 44, "zero bytes", "B", 1, poke=47)
    bad("n6_56", "N6", "d", 56, "zero bytes", "B", 1)
    bad("n6_63", "N6", "w", 56, "zero bytes", "B", 1, poke=63)
    bad("n7_rank_9", "N7", "a", 30, "rank 9", "B", 9)
    bad("n7_ragged_rank_9", "N7", "t", 30, "rank 9", "B", 9)
    bad("n7_utf8_rank", "N7", "s", 30, "rank of a utf8_ragged", "B", 1)
    codec = blob("u", [b"x"], 200)
    codec.rank = 9
    b = Batch(1, [codec])
    invalid("n7_unknown_codec_rank_9", b, "N7", b.node("u", 30), "rank 9 of an unknown codec")
    for name, path, form in (("ndarray_list", "a", 1), ("ndarray_bytes", "a", 5), ("tensor_array", "t", 2), ("tensor_natural", "t", 0), ("typed_tensor", "b", 3), ("typed_natural", "b", 0),
                             ("media_list_natural", "m", 0), ("media_list_7", "m", 7), ("utf8", "s", 1)):
        bad("n8_" + name, "N8", path, 27, "form %d" % form, "B", form)
    for form in (0, 1, 4):
        b = Batch(2, [ndarray("a", [array("int8", [1]), array("int8", [2])], "int8", (1,))])
        invalid("n8_ndarray_rank_1_form_%d" % form, b, "N8", b.node("a", 27), "form %d with rank 1" % form, (b.node("a", 27), "B", form))
    bad("n9_field", "N9", "a", 48, "rows of a field", "Q", 4)
    bad("n9_child", "N9", "d.x", 48, "rows of a child", "Q", 6)
    bad("n9_list_child", "N9", "l[0]", 48, "rows of a child of a list", "Q", 2**63)
    bad("n9_value", "N9", "w", 48, "rows of a batch value", "Q", 5)
    b = Batch(2, [media("m", [Media(b"x", mime="y"), N])])
    invalid("n9_attribute", b, "N9", b.node("m.mime", 48), "rows of an attribute leaf of media_bytes", (b.node("m.mime", 48), "Q", 1))
    b = rich()
    after = struct.unpack_from("<I", b.bytes, b.node("s", 8))[0]
    bad("n10_name_hole", "N10", "s", 8, "a name one byte later", "I", after + 1)
    bad("n10_name_before", "N10", "s", 8, "a name over the one before", "I", after - 1)
    bad("n10_name_long", "N10", "w", 8, "a name beyond the strings", "I", 100000, poke=12)
    bad("n10_name_huge", "N10", "w", 8, "a name of 2^32 - 1 bytes", "I", NONE, poke=12)
    bad("n10_shape", "N10", "a", 32, "shape_offset", "I", 0)
    bad("n10_shape_of_dict", "N10", "d", 32, "shape_offset of a node without shape", "I", 0)
    bad("n10_parameter", "N10", "s", 36, "parameter_offset", "I", 0)
    bad("n10_parameter_long", "N10", "w", 36, "a parameter beyond the strings", "I", 100000, poke=40)
    b = Batch(1, [infer("a", [1])])
    invalid("n10_shape_long", b, "N10", b.node("a", 32), "a shape beyond the strings", (b.node("a", 27), "B", 2), (b.node("a", 30), "B", 8))
    child = infer("", [N])
    child.name = "x"
    b = Batch(1, [list_node("l", [[N]], [child])])
    invalid("n11_list_child_name", b, "N11", b.node(1, 12), "a child of a list with a name")
    for i, (raw, wrong) in enumerate(BAD_UTF8):
        b = Batch(1, [null(b"ok" + raw, [N])])
        invalid("n12_name_%d" % i, b, "N12", b.strings_at + 2 + wrong, "name " + raw.hex())
    leaf = blob("o", [Opaque("", b"x")], 11, parameter=b"ab\xff")
    b = Batch(1, [leaf])
    invalid("n12_parameter", b, "N12", b.strings_at + 3, "parameter")
    for name, dtype, rows, shape in (("2_63", U8, 1, (2**31, 2**31, 2)), ("rows", U8, 2, (2**62,)), ("element_size", (0, 64, 1), 1, (2**60,)),
                                     ("2_64", U8, 1, (2**32, 2**32)), ("2_128", U8, 1, (2**64 - 1, 2**64 - 1)),
                                     ("bits", (1, 1, 1), 1, (2**32, 2**32)), ("no_bits", (99, 0, 1), 1, (2**32, 2**32))):
        col = Col("a", 1, [N] * rows, 2, dtype, 2, len(shape), shape, bufs=[Buf(1, dtype, 0, b"")])
        b = Batch(rows, [col])
        invalid("n13_" + name, b, "N13", b.node("a", 32), "too many elements")
    bad("n14_first_buffer", "N14", "s", 16, "first_buffer", "I", 0)
    bad("n14_first_buffer_of_empty", "N14", "n", 16, "first_buffer of a node without buffers", "I", 9, base=lambda: Batch(1, [infer("n", [N]), infer("a", [1])]))
    bad("n14_buffer_count", "N14", "w", 20, "more buffers than there are", "H", 3)
    bad("n14_buffer_count_huge", "N14", "a", 20, "more buffers than there are", "H", 65535)
    b = rich()
    invalid("n14_left_over", b, "N14", 68, "a buffer that no node takes", (b.node("w", 20), "H", 1))
    invalid("n15_fields", rich(), "N15", 96, "field_count", (96, "I", 6))
    invalid("n15_values", rich(), "N15", 100, "value_count", (100, "I", 3))


# ill-formed UTF-8, and where its first ill-formed sequence begins
BAD_UTF8 = [(b"\xff", 0), (b"\x80", 0), (b"\xc3", 0), (b"\xc0\xaf", 0), (b"\xe0\x80\xaf", 0), (b"\xed\xa0\x80", 0), (b"\xf4\x90\x80\x80", 0), (b"\xf8\x88\x80\x80", 0),
            (b"\xe4\xb8", 0), (b"\xc3\xa9\xc3(", 2), (b"\xf0\x9f\x98(x", 0)]


def two_roles():
    return Batch(3, [infer("a", [1, N, M]).store(), ndarray("u", [1, 2, 3], "uint64").store("sequence"), infer("s", ["xx", "yy", "zz"]).store(),
                     constant_column("c", "uint8", 3, 9), infer("b", [True] * 3).store("constant"), infer("i", [7, 8, 9]).store("stored"), ndarray("k", [1, 2, 3], "int8"),
                     ndarray("j", [7, 8, 9], "int64").store("alias"), ndarray("v", [-1, 0, 1], "int64").store("sequence"), infer("z", [N, "q", "q"])])


def invalid_buffers():
    def bad(name, rule, path, role, field, why, fmt, *fields, poke=None, base=two_roles, at=None, dim=0):
        b = base()
        record = b.buffer(path, 0, role, dim)
        invalid(name, b, rule, record + field if at is None else at(b), why, (record + (field if poke is None else poke), fmt, *fields))

    bad("b1_node", "B1", "s", "data", 0, "another node's record", "I", 0)
    bad("b1_node_beyond", "B1", "s", "data", 0, "no node", "I", NONE)
    bad("b1_role_descends", "B1", "a", "missing", 4, "missing before validity", "B", 5)
    bad("b1_role_twice", "B1", "a", "missing", 4, "validity twice", "B", 6)
    bad("b1_dim_twice", "B1", "t", "shape", 4, "shape of dim 0 twice", "B", 0, poke=5, base=rich, dim=1)
    for storage in (0, 6, 255):
        bad("b2_storage_%d" % storage, "B2", "a", "data", 6, "storage %d" % storage, "B", storage)
    bad("b2_dim_of_data", "B2", "a", "data", 5, "dim of role data", "B", 1)
    bad("b2_dim_of_shape", "B2", "t", "shape", 5, "dim 2 of rank 2", "B", 2, base=rich, dim=1)
    bad("b3_data_code", "B3", "a", "data", 8, "data is not of the leaf's dtype", "B", 1)
    bad("b3_data_bits", "B3", "a", "data", 8, "data is not of the leaf's dtype", "B", 32, poke=9)
    bad("b3_data_lanes", "B3", "a", "data", 8, "data is not of the leaf's dtype", "H", 2, poke=10)
    bad("b3_validity", "B3", "a", "validity", 8, "validity of bytes", "B", 8, poke=9)
    bad("b3_offsets", "B3", "s", "offsets", 8, "offsets of int64", "B", 0)
    bad("b3_ndims", "B3", "t", "ndims", 8, "ndims of uint16", "B", 16, poke=9, base=rich)
    bad("b3_types", "B3", "b", "types", 8, "types of int8", "B", 0, base=rich)
    bad("b3_shape", "B3", "t", "shape", 8, "shape of uint32", "B", 32, poke=9, base=rich)
    bad("b3_lengths", "B3", "l", "lengths", 8, "lengths of uint32", "B", 32, poke=9, base=rich)
    bad("b3_item_offsets", "B3", "m", "item_offsets", 8, "item_offsets with 2 lanes", "H", 2, poke=10, base=rich)
    b = two_roles()
    invalid("b3_no_bits", b, "B3", b.buffer("k", 8, "data"), "elements of 0 bits", (b.node("k", 26), "B", 0), (b.buffer("k", 9, "data"), "B", 0))
    b = two_roles()
    invalid("b3_no_lanes", b, "B3", b.buffer("k", 8, "data"), "elements of 0 lanes", (b.node("k", 28), "H", 0), (b.buffer("k", 10, "data"), "H", 0))
    bad("b3_text_code", "B3", "s", "data", 8, "the data of a utf8_ragged are int8", "B", 0)
    bad("b3_text_lanes", "B3", "s", "data", 8, "the data of a utf8_ragged have 2 lanes", "H", 2, poke=10)
    b = Batch(2, [plus(infer("a", [N, N]), Buf(1, (0, 0, 0), 0, b""))])
    invalid("b3_null_data", b, "B3", b.buffer("a", 8, "data"), "data of codec null, elements of 0 bits")
    bad("b4_2_63", "B4", "b", "data", 16, "2^63 bytes", "Q", 2**63)
    bad("b4_int64", "B4", "j", "data", 16, "2^60 int64", "Q", 2**60)
    bad("b4_2_64", "B4", "i", "data", 16, "2^64 - 1 int64", "Q", 2**64 - 1)
    bad("b5_stored_alias", "B5", "a", "data", 12, "alias_of of a stored buffer", "I", 1)
    bad("b5_stored_value", "B5", "a", "data", 40, "value of a stored buffer", "B", 1, poke=55)
    bad("b5_stored_headers", "B5", "a", "data", 56, "headers_offset of a plain buffer", "Q", 64)
    bad("b5_inline_alias", "B5", "k", "data", 12, "alias_of of an inline buffer", "I", 1)
    bad("b5_inline_offset", "B5", "k", "data", 24, "offset of an inline buffer", "Q", 64)
    bad("b5_inline_length", "B5", "k", "data", 32, "length of an inline buffer", "Q", 3)
    bad("b5_inline_tail", "B5", "k", "data", 40, "value beyond an inline buffer", "B", 1, poke=43)
    bad("b5_constant_tail", "B5", "c", "data", 40, "value beyond the constant", "B", 1, poke=41)
    bad("b5_constant_length", "B5", "c", "data", 32, "length of a constant", "Q", 1)
    bad("b5_constant_headers", "B5", "c", "data", 56, "headers_offset of a constant", "Q", 1)
    bad("b5_sequence_offset", "B5", "u", "data", 24, "offset of a sequence", "Q", 1)
    bad("b5_alias_value", "B5", "j", "data", 40, "value of an alias", "B", 1)
    bad("b5_bit_constant", "B5", "z", "validity", 40, "value beyond a 1-bit constant", "B", 1, poke=41,
        base=lambda: Batch(200, [infer("z", [N] * 199 + ["q"]).store("constant", "validity")]))
    bad("b6_inline_17", "B6", "k", "data", 16, "17 bytes inline", "Q", 17)
    bad("b6_inline_mask_129", "B6", "z", "validity", 16, "129 bits inline", "Q", 129)
    bad("b6_packed_inline", "B6", "k", "data", 7, "packing of an inline buffer", "B", 1)
    bad("b6_packed_constant", "B6", "c", "data", 7, "packing of a constant", "B", 1)
    bad("b6_packed_sequence", "B6", "u", "data", 7, "packing of a sequence", "B", 255)
    bad("b7_bool_2", "B7", "b", "data", 40, "a constant bool of 2", "B", 2)
    base = lambda: Batch(3, [infer("z", [N, N, "q"]).store("constant", "validity")])
    bad("b7_bit_2", "B7", "z", "validity", 40, "a constant bit of 2", "B", 2, base=base)
    bad("b7_bit_255", "B7", "z", "validity", 40, "a constant bit of 255", "B", 255, base=base)
    b = Batch(2, [ndarray("k", [1, 2], "int32").store("stored")])
    invalid("b8_int32", b, "B8", b.buffer("k", 8, "data"), "a sequence of int32", (b.buffer("k", 6, "data"), "B", 4), (b.buffer("k", 24, "data"), "QQ", 0, 0))
    b = Batch(2, [ndarray("k", [1, 2], "float64").store("stored")])
    invalid("b8_float64", b, "B8", b.buffer("k", 8, "data"), "a sequence of float64", (b.buffer("k", 6, "data"), "B", 4), (b.buffer("k", 24, "data"), "QQ", 0, 0))
    for name, path, start, step in (("uint_up", "u", struct.pack("<Q", 2**64 - 2), 1), ("uint_down", "u", struct.pack("<Q", 1), -1), ("int_up", "v", struct.pack("<q", 2**63 - 2), 1),
                                    ("int_down", "v", struct.pack("<q", -2**63 + 1), -1), ("far", "v", struct.pack("<q", 0), 2**63 - 1)):
        bad("b8_" + name, "B8", path, "data", 40, "a sequence that overflows", "8sq", start, step)
    bad("b9_itself", "B9", "j", "data", 12, "an alias of itself", "I", two_roles_index("j"))
    bad("b9_later", "B9", "j", "data", 12, "an alias of a later record", "I", two_roles_index("j") + 1)
    bad("b9_beyond", "B9", "j", "data", 12, "an alias of no record", "I", NONE)
    bad("b9_inline", "B9", "j", "data", 12, "an alias of an inline record", "I", two_roles_index("k"))
    bad("b9_other", "B9", "j", "data", 12, "an alias of another stored record", "I", two_roles_index("a"))
    bad("b9_count", "B9", "j", "data", 12, "an alias with another count", "Q", 2, poke=16)
    bad("b9_offset", "B9", "j", "data", 12, "an alias with another offset", "Q", 0, poke=24)
    bad("b9_length", "B9", "j", "data", 12, "an alias with another length", "Q", 16, poke=32)
    bad("b9_packing", "B9", "j", "data", 12, "an alias with another packing", "B", 2, poke=7)
    b = two_roles()
    invalid("b9_dtype", b, "B9", b.buffer("j", 12, "data"), "an alias with another dtype", (b.node("j", 25), "B", 1), (b.buffer("j", 8, "data"), "B", 1))
    b = Batch(1, [ndarray("a", [0], "uint64").store(), blob("s", ["x"], 8).store("stored")])
    invalid("b9_section", b, "B9", b.buffer("s", 12, "offsets"), "an alias of the data in the index", (b.buffer("s", 6, "offsets"), "B", 5))
    bad("b10_longer", "B10", "a", "data", 32, "length", "Q", 25)
    bad("b10_shorter", "B10", "s", "offsets", 32, "length", "Q", 31)
    bad("b10_count", "B10", "a", "data", 32, "count", "Q", 4, poke=16)
    bad("b10_mask", "B10", "a", "validity", 32, "length of a mask", "Q", 2)
    bad("b11_later", "B11", "a", "data", 24, "a hole", "Q", two_roles().data_at + 64)
    bad("b11_unaligned", "B11", "a", "data", 24, "not at a multiple of the alignment", "Q", two_roles().data_at + 8)
    bad("b11_zero", "B11", "a", "data", 24, "offset 0", "Q", 0)
    bad("b11_overlap", "B11", "s", "data", 24, "the bytes of another buffer", "Q", two_roles().data_at)
    bad("b11_index", "B11", "s", "offsets", 24, "offsets in the data", "Q", two_roles().data_at)
    bad("b11_huge", "B11", "a", "data", 24, "offset 2^64 - 64", "Q", 2**64 - 64)
    b = two_roles()
    invalid("b11_beyond", b, "B11", b.buffer("i", 24, "data"), "bytes beyond the data", (b.buffer("i", 16, "data"), "Q", 1000), (b.buffer("i", 32, "data"), "Q", 8000))
    b = two_roles()
    invalid("b11_beyond_index", b, "B11", b.buffer("s", 24, "offsets"), "bytes beyond the index", (b.buffer("s", 16, "offsets"), "Q", 1000), (b.buffer("s", 32, "offsets"), "Q", 8000))
    b = two_roles()
    invalid("b11_wraps", b, "B11", b.buffer("i", 24, "data"), "offset + length beyond 2^63", (b.buffer("i", 16, "data"), "Q", 2**60 - 1), (b.buffer("i", 32, "data"), "Q", 2**63 - 8))
    invalid("b12_index", Batch(2, [infer("a", [1, 2]).store()], index_tail=64), "B12", 40, "64 bytes more in the index")
    invalid("b12_data", Batch(2, [infer("a", [1, 2]).store()], data_tail=64), "B12", 24, "64 bytes more in the data")
    invalid("b12_data_only_padding", Batch(2, [infer("a", [1, 2])], data_tail=64), "B12", 24, "data that no buffer has")
    invalid_b13()


def two_roles_index(path):
    b = two_roles()
    return next(i for i, x in enumerate(b.bufs) if x.owner.path == path and x.role == 1)


def without(col, role, dim=0):
    col.bufs = [b for b in col.bufs if (b.role, b.dim) != (ROLES[role], dim)]
    return col


def plus(col, *bufs):
    col.bufs = sorted(col.bufs + list(bufs), key=lambda b: (b.role, b.dim))
    return col


def invalid_b13():
    def absent_buffer(name, col, why):
        b = Batch(2, [col])
        invalid("b13_" + name, b, "B13", b.node(0, 16), why)

    def extra(name, col, role, why, dim=0):
        b = Batch(2, [col])
        invalid("b13_" + name, b, "B13", b.buffer(b.nodes[0].path, 0, role, dim), why)

    absent_buffer("no_data", without(infer("a", [1, 2]), "data"), "an ndarray without data")
    absent_buffer("text_no_data", without(infer("a", ["x", "y"]), "data"), "text without data")
    absent_buffer("no_offsets", without(infer("a", ["x", "y"]), "offsets"), "text without offsets")
    absent_buffer("no_shape", without(infer("a", [tensor("int8", [1], (1, 1))] * 2), "shape", 1), "rank 2 without dim 1")
    absent_buffer("no_shape_0", without(infer("a", [tensor("int8", [1], (1, 1))] * 2), "shape", 0), "rank 2 without dim 0")
    absent_buffer("no_item_offsets", without(infer("a", [[b"x"], []]), "item_offsets"), "a list of bytes without item_offsets")
    absent_buffer("no_lengths", without(infer("a", [[N], []]), "lengths"), "a list without lengths")
    u8 = Buf(8, U8, 2, b"\0\0")
    extra("dict_lengths", plus(infer("a", [{}, {}]), u64s(3, [0, 0])), "lengths", "a dict with lengths")
    extra("list_offsets", plus(infer("a", [[], []]), u64s(2, [0, 0, 0])), "offsets", "a list with offsets")
    extra("dict_unknown_role", plus(infer("a", [{}, {}]), Buf(77, U64, 2, bytes(16))), 77, "a dict with a buffer of unknown role")
    extra("null_validity", plus(infer("a", [N, N]), Buf(6, BIT, 2, b"\0")), "validity", "codec null with validity")
    unknown = plus(infer("a", [N, N]), Buf(6, BIT, 3, b"\0"), Buf(77, U64, 2, bytes(16)))
    extra("null_unknown_role_validity", unknown, "validity", "validity of 3 rows of 2, beside a buffer of unknown role")
    extra("null_types", plus(infer("a", [N, N]), u8), "types", "codec null with types")
    extra("text_types", plus(infer("a", ["x", "y"]), u8), "types", "text with types")
    extra("text_item_offsets", plus(infer("a", ["x", "y"]), u64s(9, [0, 1, 2])), "item_offsets", "text with item_offsets")
    extra("ndarray_offsets", plus(infer("a", [1, 2]), u64s(2, [0, 1, 2])), "offsets", "an ndarray with offsets")
    extra("ndarray_rank_1_types", plus(ndarray("a", [array("int8", [1]), array("int8", [2])], "int8", (1,)), u8), "types", "types with rank 1")
    extra("rank_1_shape", plus(infer("a", [tensor("int8", [1]), tensor("int8", [1])]), u64s(4, [1, 1], 0)), "shape", "shape with rank 1")
    extra("ndarray_ndims", plus(infer("a", [1, 2]), Buf(5, U8, 2, b"\0\0")), "ndims", "an ndarray with ndims")

    def count(name, col, role, n, why, rows=2, dim=0):
        b = Batch(rows, [col])
        record = b.buffer(b.nodes[0].path, 0, role, dim)
        invalid("b13_count_" + name, b, "B13", record, why, (record + 16, "Q", n))

    count("validity", infer("a", [1, N]), "validity", 3, "validity of 3 rows")
    count("missing", infer("a", [N, M]), "missing", 1, "missing of 1 row")
    count("data", ndarray("a", [0, 0], "int8"), "data", 3, "3 elements for 2 rows")
    count("data_of_shape", ndarray("a", [array("int8", [0, 0])] * 2, "int8", (2,)), "data", 5, "5 elements for 2 rows of 2")
    count("types", blob_types(infer("a", [1, 2]), [0, 0]), "types", 3, "types of 3 rows")
    count("offsets", infer("a", ["", ""]).store("constant", "offsets"), "offsets", 4, "4 offsets for 2 rows")
    count("no_offsets", infer("a", ["", ""]).store("constant", "offsets"), "offsets", 0, "no offsets for 2 rows")
    count("lengths", infer("a", [[], []]), "lengths", 1, "1 length for 2 rows")
    count("shape", infer("a", [tensor("int8", [], (0, 0))] * 2), "shape", 1, "1 shape for 2 rows", dim=1)
    count("ndims", rank_0_with_ndims(), "ndims", 3, "ndims of 3 rows")
    count("item_offsets", media_list_zero(), "item_offsets", 2, "2 item_offsets for 2 rows")
    b = Batch(2, [infer("a", [[Media(b"", mime=""), b""], []])])
    record = b.buffer("a", 0, "types")
    invalid("b13_count_item_types", b, "B13", record, "3 types for 2 items", (record + 16, "Q", 3), (record + 42, "B", 0x50))
    b = Batch(2, [infer("a", [[Media(b"", height=1), Media(b"", height=2)], []])])
    invalid("b13_attribute_rows", b, "B13", b.buffer("a", 0, "offsets"), "an attribute with 1 row for 2 items",
            (b.node("a.height", 48), "Q", 1), (b.buffer("a.height", 16, "data"), "Q", 1), (b.buffer("a.height", 40, "data"), "QQ", 1, 0))
    b = Batch(2, [infer("a", [[b""], []])])
    record = b.buffer("a", 0, "offsets")
    invalid("b13_no_item_offsets_element", b, "B13", record, "no offset at all", (record + 16, "Q", 0))


def rank_0_with_ndims():
    return plus(infer("a", [tensor("int8", [1], ()), tensor("int8", [2], ())]), Buf(5, U8, 2, b"\0\0"))


def media_list_zero():
    col = media_list("a", [[b""], []])
    col.bufs = [b for b in col.bufs if b.role != 9] + [u64s(9, [0, 0, 0])]
    col.bufs[-1].storage = "constant"
    return col


def invalid_metadata():
    b = rich()

    def bad(name, rule, i, field, why, fmt, *fields, poke=None):
        b = rich()
        invalid(name, b, rule, b.metadata(i, field), why, (b.metadata(i, field if poke is None else poke), fmt, *fields))

    bad("m1_node", "M1", 0, 0, "no such node", "I", len(b.nodes))
    bad("m1_node_huge", "M1", 2, 0, "no such node", "I", NONE - 1)
    b = rich()
    invalid("m2_nodes_descend", b, "M2", b.metadata(2, 4), "node 0 after the whole buffer", (b.metadata(2), "I", 0))
    b = Batch(0, [], meta={"a": "1", "b": "2"})
    at = b.string(b"a1b2")
    invalid("m2_keys_descend", b, "M2", b.metadata(1, 4), "b before a", (at, "4s", b"b1a2"))
    b = Batch(0, [], meta={"a": "1", "b": "2"})
    invalid("m2_keys_twice", b, "M2", b.metadata(1, 4), "the same key twice", (at, "4s", b"a1a2"))
    b = rich()
    key = struct.unpack_from("<I", b.bytes, b.metadata(0, 4))[0]
    bad("m3_key", "M3", 0, 4, "key_offset", "I", key + 1)
    bad("m3_key_long", "M3", 2, 4, "a key beyond the strings", "I", 100000, poke=8)
    bad("m3_value", "M3", 0, 12, "value_offset", "I", key)
    bad("m3_value_long", "M3", 2, 12, "a value beyond the strings", "I", NONE, poke=16)
    b = rich()
    invalid("m3_end", b, "M3", 88, "a byte after the last string", (88, "Q", b.strings_end - b.strings_at + 1), (b.strings_end, "B", 65))
    b = Batch(0, [infer("a", [])])
    invalid("m3_end_no_records", b, "M3", 88, "strings that are nobody's", (88, "Q", 3), (b.strings_end, "H", 0x4242))
    for name, meta, wrong in (("key", {b"a\xff": "v"}, 1), ("value", {"k": b"ab\xe4\xb8"}, 3)):
        b = Batch(0, [], meta=meta)
        invalid("m4_" + name, b, "M4", b.strings_at + wrong, name)
    bad("m5_first", "M5", 0, 20, "zero bytes", "B", 1)
    bad("m5_last", "M5", 2, 20, "zero bytes", "B", 1, poke=31)

    def names():
        return Batch(2, [infer("a", [1, 2]), infer("b", [[{"c": 1, "d": 1}], []]), infer("e", [1, 2])], [infer("a", [1])])

    def order(name, rule, position, entries, why):
        b = names()
        invalid(name, b, rule, b.name(position), why, *[(b.name(i), "I", e) for i, e in entries.items()])

    b = names()
    index = [n.index for n in b.named]
    c, d = index[0], index[1]
    order("s1_beyond", "S1", 0, {0: 99}, "no such node")
    order("s1_huge", "S1", 5, {5: NONE}, "no such node")
    order("s1_list_child", "S1", 2, {2: 2}, "a child of a list")
    invalid("s1_too_few", names_fewer(), "S1", 76, "one entry too few")
    order("s2_siblings", "S2", 1, {0: d, 1: c}, "d before c")
    order("s2_parents", "S2", 1, {0: index[2], 1: c}, "a top-level name before a child's")
    order("s2_scopes", "S2", 3, {2: index[5], 3: index[2]}, "a batch value before a field")
    b = Batch(1, [infer("aa", [1]), infer("ab", [2])])
    invalid("s2_names", b, "S2", b.name(1), "names whose bytes descend", (b.string(b"aa"), "2s", b"ac"))
    b = Batch(1, [infer("aa", [1]), infer("ab", [2])])
    invalid("s3_field", b, "S3", b.name(1), "two fields of one name", (b.string(b"ab"), "2s", b"aa"))
    b = Batch(1, [infer("d", [{"xa": 1, "xb": 2}])])
    invalid("s3_key", b, "S3", b.name(1), "two keys of one name", (b.string(b"xb"), "2s", b"xa"))
    b = Batch(1, [], [infer("aa", [1]), infer("ab", [2])])
    invalid("s3_value", b, "S3", b.name(1), "two batch values of one name", (b.string(b"ab"), "2s", b"aa"))
    order("s3_entry_twice", "S3", 1, {1: c}, "one node twice")


def names_fewer():
    class Fewer(Batch):
        def list_nodes(self):
            super().list_nodes()
            self.named.pop()
    return Fewer(1, [infer("a", [1]), infer("b", [2])])


def invalid_index():
    b = rich()

    def bad(name, rule, at, why, *pokes, base=rich):
        b = base()
        invalid(name, b, rule, at(b), why, *[(place(b), fmt, *fields) for place, fmt, *fields in pokes])

    def el(path, role, i=0, size=8, dim=0):
        return lambda b: b.element(path, role, i * size, dim)

    def record(path, role):
        return lambda b: b.buffer(path, 0, role)

    def node(path):
        return lambda b: b.node(path)

    invalid("i1_bit", rich(), "I1", 56, "a bit of the offsets", (b.element("s", "offsets", 8), "B", 3), seal=False)
    invalid("i1_checksums", rich(), "I1", 56, "a bit of a data checksum", (b.head_length, "B", b.bytes[b.head_length] ^ 128), seal=False)
    bad("i2_checksums", "I2", lambda b: b.head_length + 4, "padding after the checksums", (lambda b: b.head_length + 4, "B", 1))
    bad("i2_buffer", "I2", lambda b: b.element("s", "offsets", 48), "padding after offsets", (el("s", "offsets", 6), "B", 1))
    bad("i2_last", "I2", lambda b: b.data_at - 1, "the last byte of the index", (lambda b: b.data_at - 1, "B", 255))
    bad("i3_validity", "I3", el("a", "validity"), "a sixth bit of 5", (el("a", "validity"), "B", 0b110101))
    bad("i3_missing", "I3", el("a", "missing"), "an eighth bit of 5", (el("a", "missing"), "B", 0b10001000))
    bad("i3_null_codec", "I3", el("n", "missing"), "a bit after the last row, codec null", (el("n", "missing"), "B", 0x82), base=lambda: Batch(2, [infer("n", [N, M]).store()]))
    bad("i3_inline", "I3", el("n", "validity"), "a bit after the last row, inline", (el("n", "validity"), "B", 0xFD), base=lambda: Batch(2, [infer("n", [1, N])]))
    bad("i3_inline_long", "I3", el("n", "validity", 1, 1), "a bit after the last of 12 rows", (el("n", "validity", 1, 1), "B", 0x10), base=lambda: Batch(12, [infer("n", [1] * 4 + [N] * 8)]))
    codec = lambda: Batch(2, [unreadable(blob("u", [b"", N], 200), "CODEC")])
    bad("i3_unknown_codec", "I3", el("u", "validity"), "a bit after the last row, unknown codec", (el("u", "validity"), "B", 0x81), base=codec)
    bad("i4_value", "I4", record("a", "missing"), "a value that is missing", (el("a", "missing"), "B", 0b01001))
    without_validity = infer("a", [1, 2])
    without_validity.bufs.append(Buf(7, BIT, 2, b"\0"))
    b = Batch(2, [without_validity])
    invalid("i4_no_validity", b, "I4", b.buffer("a", 0, "missing"), "missing without validity")
    dict_missing = plus(infer("a", [{}, {}]), Buf(7, BIT, 2, b"\0"))
    b = Batch(2, [dict_missing])
    invalid("i4_dict_no_validity", b, "I4", b.buffer("a", 0, "missing"), "missing without validity, dict")
    bad("i4_list_child", "I4", record("l[1]", "missing"), "a value that is missing, in a list", (el("l[1]", "validity"), "B", 0b10001))
    bad("i5_value", "I5", record("d.x", "validity"), "a value in an absent dict", (el("d.x", "validity"), "B", 0b00111))
    bad("i5_missing", "I5", record("d.x", "validity"), "missing in an absent dict", (el("d.x", "missing"), "B", 0b10010))
    bad("i5_list", "I5", record("l[0]", "validity"), "a value in an absent list", (el("l[0]", "validity"), "B", 0b11001))
    b = Batch(2, [dict_node("d", [{"x": 1}, N], [ndarray("x", [1, 0], "int64")])])
    invalid("i5_no_validity", b, "I5", b.node("d.x"), "a child without masks in an absent dict")
    nulls = null("x", [N, N])
    nulls.bufs = [Buf(7, BIT, 2, b"\2")]
    b = Batch(2, [dict_node("d", [{"x": N}, N], [nulls])])
    invalid("i5_null_codec", b, "I5", b.node("d.x"), "missing in an absent dict, codec null")
    b = Batch(2, [dict_node("d", [{"x": {}}, N], [dict_node("x", [{}, {}], [])])])
    invalid("i5_dict_in_dict", b, "I5", b.node("d.x"), "a dict without masks in an absent dict")
    bad("i5_unknown_codec", "I5", lambda b: b.node("d.u"), "a leaf of unknown codec in an absent dict",
        base=lambda: Batch(2, [dict_node("d", [{}, N], [Col("u", 1, [1, 2], 200, U8)])]))
    bad("i6_not_missing", "I6", record("l[1]", "missing"), "null where the list is shorter", (el("l[1]", "missing"), "B", 0b00100))
    bad("i6_missing", "I6", record("l[0]", "missing"), "missing where the list is long enough", (el("l[0]", "missing"), "B", 0b00101), (el("l[0]", "validity"), "B", 0b10000))
    b = Batch(2, [list_node("l", [[1], []], [ndarray("", [1, N], "int64")])])
    invalid("i6_no_mask", b, "I6", b.node("l[0]"), "no missing mask where the list is shorter")
    b = Batch(2, [list_node("l", [[1], []], [null("", [N, N])])])
    invalid("i6_null_codec", b, "I6", b.node("l[0]"), "no missing mask where the list is shorter, codec null")
    bad("i7_first", "I7", el("s", "offsets", 0), "the first offset is 1", (el("s", "offsets", 0), "Q", 1))
    bad("i7_descends", "I7", el("s", "offsets", 2), "offsets descend", (el("s", "offsets", 2), "Q", 1))
    bad("i7_end", "I7", el("s", "offsets", 5), "the last offset is not the count", (el("s", "offsets", 5), "Q", 5))
    bad("i7_huge", "I7", el("s", "offsets", 4), "an offset of 2^64 - 1, then less", (el("s", "offsets", 3), "Q", 2**64 - 1))
    bad("i7_items", "I7", el("m", "item_offsets", 5), "item_offsets do not end at the number of items", (el("m", "item_offsets", 5), "Q", 2))
    bad("i7_items_first", "I7", el("m", "item_offsets", 0), "the first item offset is 1", (el("m", "item_offsets", 0), "Q", 1))
    bad("i7_item_bytes", "I7", el("m", "offsets", 2), "offsets of items descend", (el("m", "offsets", 2), "Q", 1))
    bad("i7_no_rows", "I7", el("s", "offsets", 0), "no rows, and an offset that is not 0", (el("s", "offsets", 0), "Q", 1), base=lambda: Batch(0, [blob("s", [], 8)]))
    words = lambda: Batch(20, [infer("s", ["ab"] * 20)])
    bad("i7_sequence_end", "I7", lambda b: b.buffer("s", 40, "offsets"), "a sequence of another step", (lambda b: b.buffer("s", 48, "offsets"), "q", 1), base=words)
    bad("i7_sequence_start", "I7", lambda b: b.buffer("s", 40, "offsets"), "a sequence from 2", (lambda b: b.buffer("s", 40, "offsets"), "Q", 2), base=words)
    bad("i7_constant", "I7", lambda b: b.buffer("s", 40, "offsets"), "a constant of 1", (lambda b: b.buffer("s", 40, "offsets"), "Q", 1),
        base=lambda: Batch(20, [infer("s", [""] * 20)]))
    bad("i8_cell", "I8", el("s", "offsets", 2), "an absent string with a byte", (el("s", "offsets", 2), "Q", 3))
    bad("i8_first", "I8", el("s", "offsets", 1), "an absent string that takes the next one's bytes", (el("s", "offsets", 1), "Q", 2), base=lambda: Batch(2, [infer("s", [N, "ab"]).store()]))
    bad("i8_tensor", "I8", el("t", "offsets", 2), "an absent tensor with an element", (el("t", "offsets", 2), "Q", 3))
    bad("i8_items", "I8", el("m", "item_offsets", 2), "an absent list with an item", (el("m", "item_offsets", 2), "QQQ", 3, 3, 3))
    bad("i8_list", "I8", el("l", "lengths", 1), "an absent list of length 1", (el("l", "lengths", 1), "Q", 1))
    bad("i9_length", "I9", el("l", "lengths", 0), "a length of 3 and 2 children", (el("l", "lengths", 0), "Q", 3))
    bad("i9_huge", "I9", el("l", "lengths", 4), "a length of 2^64 - 1", (el("l", "lengths", 4), "Q", 2**64 - 1))
    bad("i9_sequence", "I9", lambda b: b.buffer("l", 40, "lengths"), "a sequence of lengths that grows beyond the children", (lambda b: b.buffer("l", 48, "lengths"), "q", 1),
        base=lambda: Batch(20, [infer("l", [[]] * 20).store("sequence", "lengths")]))
    bad("i10_ndims", "I10", el("t", "ndims", 0, 1), "3 dimensions of rank 2", (el("t", "ndims", 0, 1), "B", 3))
    bad("i10_ndims_255", "I10", el("t", "ndims", 4, 1), "255 dimensions", (el("t", "ndims", 4, 1), "B", 255))
    bad("i10_absent_ndims", "I10", el("t", "ndims", 1, 1), "dimensions of an absent cell", (el("t", "ndims", 1, 1), "B", 1))
    bad("i10_absent_shape", "I10", el("t", "shape", 1), "shape of an absent cell", (el("t", "shape", 1), "Q", 2))
    bad("i10_dim_not_there", "I10", el("t", "shape", 2, dim=1), "dim 1 of a cell of one dimension", (el("t", "shape", 2, dim=1), "Q", 1))
    bad("i10_scalar_dim", "I10", el("t", "shape", 4), "dim 0 of a cell of none", (el("t", "shape", 4), "Q", 1))
    grid = lambda: Batch(2, [infer("g", [tensor("int8", [1, 2, 3, 4], (2, 2)), N]).store()])
    bad("i10_no_ndims", "I10", el("g", "shape", 1, dim=1), "shape of an absent cell, no ndims", (el("g", "shape", 1, dim=1), "Q", 7), base=grid)
    bad("i11_product", "I11", el("t", "offsets", 1), "2 x 2 of 2 elements", (el("t", "shape", 0, dim=1), "Q", 2))
    bad("i11_zero", "I11", el("t", "offsets", 1), "0 x 1 of 2 elements", (el("t", "shape", 0), "Q", 0))
    bad("i11_one_dim", "I11", el("t", "offsets", 3), "a dimension of 2 and 1 element", (el("t", "shape", 2), "Q", 2))
    bad("i11_overflow", "I11", el("g", "offsets", 1), "a product of 2^64 + 4 - 2^64", (el("g", "shape", 0), "Q", 2**63 + 2), base=grid)
    bad("i11_wraps", "I11", el("g", "offsets", 1), "2^32 x 2^32, which wraps to 0", (el("g", "shape", 0), "Q", 2**32), (el("g", "shape", 0, dim=1), "Q", 2**32),
        (el("g", "offsets", 1), "QQ", 0, 0), (lambda b: b.buffer("g", 16, "data"), "Q", 0), (lambda b: b.buffer("g", 32, "data"), "Q", 0), base=lambda: empty_grid())
    bad("i11_scalar", "I11", el("t", "offsets", 5), "a cell of no dimensions with no element", (el("t", "offsets", 5), "Q", 3), (lambda b: b.buffer("t", 16, "data"), "Q", 3),
        (lambda b: b.buffer("t", 32, "data"), "Q", 12), (lambda b: b.element("t", "data", 12), "I", 0))
    bad("i11_rank_0", "I11", el("z", "offsets", 1), "two elements, rank 0", (el("z", "offsets", 1), "Q", 2), base=lambda: Batch(2, [infer("z", [tensor("int8", [1], ())] * 2).store()]))
    bad("i11_ndims_0", "I11", el("z", "offsets", 1), "two elements, ndims 0", (el("z", "ndims", 0, 1), "B", 0), base=lambda: Batch(2, [infer("z", [tensor("int8", [1, 2]), tensor("int8", [1], ())]).store()]))
    bad("i12_form", "I12", el("b", "types", 0, 1), "form tensor in a typed_ragged", (el("b", "types", 0, 1), "B", 0x31))
    bad("i12_number_3", "I12", el("b", "types", 1, 1), "number type 3 in an int64", (el("b", "types", 1, 1), "B", 3))
    bad("i12_int_in_int", "I12", el("b", "types", 1, 1), "number type int in an int64", (el("b", "types", 1, 1), "B", 2))
    bad("i12_number_9", "I12", el("b", "types", 1, 1), "number type 9", (el("b", "types", 1, 1), "B", 9))
    bad("i12_array_bool", "I12", el("b", "types", 0, 1), "number type bool in an array", (el("b", "types", 0, 1), "B", 0x21))
    bad("i12_absent", "I12", el("b", "types", 2, 1), "type of an absent cell", (el("b", "types", 2, 1), "B", 0x10))
    bad("i12_item_number", "I12", el("m", "types", 1, 1), "number type of an item", (el("m", "types", 1, 1), "B", 0x51))
    bad("i12_item_form", "I12", el("m", "types", 1, 1), "form array of an item", (el("m", "types", 1, 1), "B", 0x20))
    for name, cells, dtype, t in (("float", [1.5, 2.5], "float64", 3), ("bool_in_bool", [True, False], "bool", 1), ("form_list", [1, 2], "int64", 0x10), ("form_media", [1, 2], "int64", 0x60)):
        b = Batch(2, [blob_types(ndarray("a", cells, dtype), [0, t])])
        invalid("i12_ndarray_" + name, b, "I12", b.element("a", "types", 1), "type %#x in an ndarray of %s" % (t, dtype))
    b = Batch(2, [blob_types(ndarray("a", [Tensor(4, "int64", (), bytes(8))] * 2, "int64"), [1, 0])])
    invalid("i12_scalar_bool", b, "I12", b.element("a", "types", 0), "number type bool of a scalar")
    b = Batch(2, [blob_types(ragged("a", [tensor("int8", [1])] * 2, 3, "int8"), [0, 0x20])])
    invalid("i12_tensor_array", b, "I12", b.element("a", "types", 1), "form array in a ragged_tensor")
    for number, name in ((1, "bool"), (2, "int")):  # the form of a cell may be said of any dtype
        dtype = 2, 128, 1
        b = Batch(3, [Col("u", 1, [1, 2, 3], 2, dtype, bufs=[Buf(1, dtype, 3, bytes(48)), *u8s(8, [0x20, 0, number])])])
        invalid("i12_unknown_dtype_" + name, b, "I12", b.element("u", "types", 2), "number type %s in an unknown dtype" % name)


def empty_grid():
    col = infer("g", [tensor("int8", [], (0, 0)), N])
    return Batch(2, [col.store()])


def invalid_data():
    b = rich()

    def bad(name, rule, at, why, *pokes, base=rich):
        b = base()
        invalid(name, b, rule, at(b), why, *[(place(b), fmt, *fields) for place, fmt, *fields in pokes])

    def el(path, byte=0):
        return lambda b: b.element(path, "data", byte)

    b = rich()
    invalid("d1_bit", b, "D1", b.data_at, "a bit of the data", (b.element("s", "data"), "B", 99), seal=False)
    b = rich()
    invalid("d1_padding", b, "D1", b.data_at, "a padding byte of the data, and not the checksum", (b.total - 1, "B", 1), seal=False)
    b = rich()
    b.poke(b.head_length, "I", 0)
    index, = struct.unpack_from("<Q", b.bytes, 40)
    b.poke(56, "I", crc32c(b.bytes[b.head_length:b.head_length + index]))
    INVALID["d1_checksum"] = bytes(b.bytes), "full", "D1", b.data_at, "the checksum itself"
    fix_head(INVALID, "d1_checksum")
    b = Batch(8200, [ndarray("n", [(i * i) % 251 for i in range(8200)], "int64")])
    invalid("d1_second_chunk", b, "D1", b.data_at + 65536, "a bit of the second chunk", (b.data_at + 65536 + 5, "B", 1), seal=False)
    bad("d2_first", "D2", el("a", 40), "padding after the first data", (el("a", 40), "B", 1))
    bad("d2_last", "D2", lambda b: b.total - 1, "the last byte", (lambda b: b.total - 1, "B", 255))
    bad("d2_no_checksums", "D2", lambda b: b.total - 1, "the last byte, without checksums", (lambda b: b.total - 1, "B", 255), base=lambda: rich(checksums=False))
    for name, storage in (("stored", "stored"), ("inline", "inline")):
        bad("d3_" + name, "D3", el("b", 2), "a bool of 2", (el("b", 2), "B", 2), base=lambda: Batch(3, [ndarray("b", [True, N, False], "bool").store(storage, "data")]))
    bad("d3_ragged", "D3", el("b", 1), "a bool of 255", (el("b", 1), "B", 255), base=lambda: Batch(2, [infer("b", [tensor("bool", [1, 0]), N])]))
    bad("d4_stored", "D4", el("a", 8), "bytes of an absent int64", (el("a", 8), "Q", 1))
    bad("d4_byte", "D4", el("a", 31), "the last byte of an absent int64", (el("a", 31), "B", 128))
    bad("d4_inline", "D4", el("a", 9), "bytes of an absent cell, inline", (el("a", 9), "B", 1), base=lambda: Batch(2, [infer("a", [1, N])]))
    bad("d4_shape", "D4", el("a", 5), "an element of an absent cell of 4", (el("a", 5), "B", 1), base=lambda: Batch(2, [ndarray("a", [array("int8", [1, 2, 3, 4]), N], "int8", (4,))]))
    bad("d4_constant", "D4", lambda b: b.buffer("a", 41, "data"), "a constant where a cell is absent", (lambda b: b.buffer("a", 41, "data"), "B", 1),
        base=lambda: Batch(20, [ndarray("a", [0] * 19 + [N], "int32").store("constant", "data")]))
    bad("d4_sequence", "D4", lambda b: b.buffer("a", 40, "data"), "a sequence where a cell is absent", (lambda b: b.buffer("a", 48, "data"), "q", 1),
        base=lambda: Batch(20, [ndarray("a", [0] * 19 + [N], "int64").store("sequence", "data")]))
    bad("d4_negative_zero", "D4", el("a", 15), "-0.0 where a cell is absent", (el("a", 15), "B", 128), base=lambda: Batch(2, [infer("a", [1.5, N])]))
    marked = lambda: Batch(4, [infer("a", [True, 2.5, 1, 0.5]).store(), infer("l", [[True], [1, 2], [0.5], []]).store(), infer("i", [True, 5, 7, 9]).store()])
    for name, path, at, raw in (("bool_2", "a", 0, struct.pack("<d", 2)), ("bool_negative_zero", "a", 0, struct.pack("<d", -0.0)), ("bool_nan", "a", 0, struct.pack("<d", math.nan)),
                                ("int_half", "a", 16, struct.pack("<d", 1.5)), ("int_negative_zero", "a", 16, struct.pack("<d", -0.0)), ("int_2_54", "a", 16, struct.pack("<d", 2.0**54)),
                                ("int_inf", "a", 16, struct.pack("<d", math.inf)), ("int_nan", "a", 16, struct.pack("<d", math.nan)), ("list_bool", "l", 0, struct.pack("<d", 0.5)),
                                ("list_int", "l", 16, struct.pack("<d", 2.5)), ("bool_in_int", "i", 0, struct.pack("<q", -1))):
        bad("d5_" + name, "D5", el(path, at), name, (el(path, at), "8s", raw), base=marked)
    for i, (raw, wrong) in enumerate(BAD_UTF8):
        b = Batch(2, [blob("s", ["", ""], 8, [b"ok", b"ab" + raw])])
        invalid("d6_%d" % i, b, "D6", b.element("s", "data", 4 + wrong), "text " + raw.hex())
    b = Batch(2, [blob("s", ["", ""], 8, [b"\xc3", b"\xa9"])])
    invalid("d6_split", b, "D6", b.element("s", "data"), "a character that two cells share")
    b = Batch(20, [blob("s", [""] * 20, 8, [b"\x80"] * 20).store("constant", "data")])
    invalid("d6_constant", b, "D6", b.buffer("s", 40, "data"), "a constant that is not UTF-8")
    for name, raw, wrong in BAD_JSON:
        b = Batch(2, [blob("j", [0, 0], 9, [b"[1]", raw])])
        invalid("d7_" + name, b, "D7", b.element("j", "data", 3 + wrong), repr(raw)[2:-1])
    for name, raw, wrong in BAD_MSGPACK:
        b = Batch(2, [blob("m", [0, 0], 10, [b"\x91\1", raw])])
        invalid("d8_" + name, b, "D8", b.element("m", "data", 2 + wrong), raw.hex() if len(raw) < 30 else name)
    for name, shape, rows in (("2_60", (2**60,), 1), ("2_40", (2**40 + 1,), 1), ("rows", (), 2**48)):
        col = Col("c", 1, range(rows), 2, (*DTYPES["uint8"], 1), 2, len(shape), shape, bufs=[Buf(1, U8, rows * math.prod(shape), b"\7", storage="constant")])
        b = Batch(rows, [col])
        invalid("d9_constant_" + name, b, "D9", b.buffer("c", 16, "data"), "a constant of %s elements" % name)
    col = Col("c", 1, range(2**48), 8, U8, bufs=[Buf(1, U8, 2**48, b"a", storage="constant"), Buf(2, U64, 2**48 + 1, (0, 1), storage="sequence")])
    b = Batch(2**48, [col])
    invalid("d9_text", b, "D9", b.buffer("c", 16, "data"), "2^48 strings of one letter")
    b = Batch(1, [blob("j", [0], 9, [b"[" * 513 + b"]" * 513])])
    invalid("d9_json_depth", b, "D9", b.element("j", "data"), "513 lists in one another")
    b = Batch(2, [blob("j", [0, 0], 9, [b"1", b'{"a":' * 600 + b"1" + b"}" * 600])])
    invalid("d9_json_depth_dicts", b, "D9", b.element("j", "data", 1), "600 objects in one another")
    b = Batch(1, [blob("m", [0], 10, [b"\x91" * 513 + b"\1"])])
    invalid("d9_msgpack_depth", b, "D9", b.element("m", "data"), "513 lists in one another")
    b = Batch(1, [blob("m", [0], 10, [b"\x81\xc0" * 513 + b"\1"])])
    invalid("d9_msgpack_depth_maps", b, "D9", b.element("m", "data"), "513 maps in one another")
    col = Col("c", 1, [0], 9, U8, bufs=[Buf(1, U8, 2**30 + 1, b"1", storage="constant"), u64s(2, [0, 2**30 + 1])])
    b = Batch(1, [col])
    invalid("d9_cell_bytes", b, "D9", b.buffer("c", 40, "data"), "a JSON number of 2^30 + 1 digits")


def shared_text(*order):
    return repeat(blob("s", ["ab", "", "c"], 8), *(order or (2, N, 0, 1)))


def refs(rows, lengths):
    """The two buffers of prefixes, as they are told."""
    return u64s(11, rows), u64s(12, lengths)


def numbers(name="p", cells=((1, 2, 3), (1, 2), (1, 2, 3, 4)), codec=3):
    return ragged(name, [N if c is None else tensor("int64", c) for c in cells], codec, "int64", rank=1)


def computed(role, count, *what):
    """A constant, or a sequence from start by step."""
    return Buf(role, U64, count, what if len(what) == 2 else struct.pack("<Q", *what), storage="sequence" if len(what) == 2 else "constant")


def invalid_shared_layout():
    """B1, B2, B3 and B13 of the three roles."""
    def record(name, rule, col, role, why, field=0, rows=4, pokes=()):
        b = Batch(rows, [col])
        at = b.buffer(b.nodes[0].path, 0, role)
        invalid(name, b, rule, at + field, why, *[(at + place, fmt, value) for place, fmt, value in pokes])

    def absent_buffer(name, col, why, rows=4):
        b = Batch(rows, [col])
        invalid("b13_" + name, b, "B13", b.node(0, 16), why)

    both = lambda: prefixed(growing("p", [5, 3, 7]), [N, (0, 3), (0, 5)])
    record("b1_row_index_before_types", "B1", plus(shared_text(), u64s(12, [0] * 4)), "prefix_length", "prefix_length called types", 4, pokes=[(4, "B", 8)])
    record("b2_dim_of_row_index", "B2", shared_text(), "row_index", "dim of role row_index", 5, pokes=[(5, "B", 1)])
    for role, col, rows in (("row_index", shared_text(), 4), ("prefix_row", both(), 3), ("prefix_length", both(), 3)):
        record("b3_%s_code" % role, "B3", col, role, role + " of int64", 8, rows, [(8, "B", 0)])
        record("b3_%s_bits" % role, "B3", col, role, role + " of uint32", 8, rows, [(9, "B", 32)])
        record("b3_%s_lanes" % role, "B3", col, role, role + " with 2 lanes", 8, rows, [(10, "H", 2)])
    index = u64s(10, [0] * 4)
    record("b13_row_index_of_null", "B13", plus(infer("a", [N] * 4), index), "row_index", "codec null with row_index")
    record("b13_row_index_of_dict", "B13", plus(infer("a", [{}] * 4), index), "row_index", "a dict with row_index")
    record("b13_row_index_of_list", "B13", plus(infer("a", [[]] * 4), index), "row_index", "a list with row_index")
    record("b13_row_index_longer", "B13", plus(without(shared_text(), "row_index"), u64s(10, [0] * 5)), "row_index", "row_index of 5 rows of 4")
    record("b13_row_index_of_stored_rows", "B13", plus(without(shared_text(), "row_index"), u64s(10, [0] * 3)), "row_index", "row_index of 3 rows of 4")
    record("b13_shared_no_offsets", "B13", plus(without(shared_text(), "offsets"), u64s(2, [])), "offsets", "no offset at all, with row_index")
    record("b13_shared_no_item_offsets", "B13", plus(without(repeat(media_list("m", [[b""]]), 0, 0, 0, 0), "item_offsets"), u64s(9, [])), "item_offsets", "no item_offset at all, with row_index")
    record("b13_shared_offsets", "B13", repeat(blob("s", list("abcde"), 8), 0, 0, 1, 1), "offsets", "5 stored rows for 4 rows")
    record("b13_shared_item_offsets", "B13", repeat(media_list("m", [[b"a"]] * 5), 0, 0, 1, 1), "item_offsets", "5 stored rows for 4 rows, media_list_ragged")
    record("b13_shared_data", "B13", repeat(ndarray("n", [1, 2, 3, 4, 5], "int8"), 0, 0, 1, 1), "data", "5 stored rows for 4 rows, ndarray")
    pairs = repeat(ndarray("n", [array("int8", [1, 2])] * 2, "int8", (2,)), 0, 0, 1, 1)
    record("b13_shared_data_odd", "B13", plus(without(pairs, "data"), Buf(1, (0, 8, 1), 3, b"\1\2\1")), "data", "3 elements for stored rows of 2")
    nothing = ndarray("n", [], "int8", (0,), 2)
    record("b13_shared_data_product_0", "B13", shared(nothing, [N] * 4, [0] * 4), "data", "an ndarray of no elements with row_index")
    record("b13_shared_data_of_product_0", "B13", shared(plus(without(nothing, "data"), Buf(1, (0, 8, 1), 4, bytes(4))), [N] * 4, [0] * 4), "data", "an ndarray of product 0 with data and row_index")
    record("b13_shared_rows_0", "B13", repeat(ndarray("n", [1], "int8")), "data", "1 stored row for no rows", rows=0)
    record("b13_shared_types", "B13", plus(repeat(ndarray("n", [1, 2], "int64"), 0, 0, 1, 1), Buf(8, U8, 4, bytes(4))), "types", "types of 4 rows, 2 of them stored")
    grids = ragged("g", [tensor("int8", [1], (1, 1)), tensor("int8", [1, 2])], 3, "int8")
    record("b13_shared_shape", "B13", plus(without(repeat(grids, 0, 0, 1, 1), "shape", 0), u64s(4, [1, 1, 2, 2], 0)), "shape", "shapes of 4 rows, 2 of them stored")
    record("b13_shared_ndims", "B13", plus(without(repeat(grids, 0, 0, 1, 1), "ndims"), Buf(5, U8, 4, b"\2\2\1\1")), "ndims", "ndims of 4 rows, 2 of them stored")
    record("b13_shared_typed_types", "B13", plus(repeat(ragged("l", [[1], [2]], 4, "int64"), 0, 0, 1, 1), Buf(8, U8, 4, bytes(4))), "types", "types of 4 rows, 2 of them stored, typed_ragged")
    record("b13_shared_item_types", "B13", plus(repeat(media_list("m", [[b"a"], [b"b"]]), 0, 0, 1, 1), Buf(8, U8, 4, bytes(4))), "types", "types of 4 items, 2 of them stored")
    record("b13_shared_validity", "B13", plus(without(shared_text(), "validity"), Buf(6, BIT, 3, b"\7")), "validity", "validity of the stored rows")
    listed = repeat(media_list("m", [[Media(b"a", height=1)], [Media(b"b", height=2)]]), 0, 0, 1, 1)
    listed.children = [ndarray("height", [1, 1, 2, 2], "int64")]
    record("b13_shared_attribute_rows", "B13", listed, "offsets", "an attribute with 4 rows for 2 stored items")
    single = repeat(media("m", [Media(b"a"), Media(b"b")]), 0, 0, 1, 1)
    single.children = [ndarray("height", [1, 2], "int64")]
    b = Batch(4, [single])
    invalid("n9_shared_attribute", b, "N9", b.node("m.height", 48), "an attribute of media_bytes with the stored rows")
    absent_buffer("shared_no_data", without(repeat(ndarray("n", [1], "int8"), 0, 0, 0, 0), "data"), "an ndarray with row_index and without data")
    absent_buffer("shared_absent_offsets", without(shared_text(), "offsets"), "text with row_index and without offsets")
    absent_buffer("shared_absent_item_offsets", without(repeat(media_list("m", [[b"a"]]), 0, 0, 0, 0), "item_offsets"), "a list of bytes with row_index and without item_offsets")
    invalid_prefix_layout(record, absent_buffer, both)


def invalid_prefix_layout(record, absent_buffer, both):
    zeros = lambda n=3: refs([0] * n, [0] * n)
    with_types = lambda: blob_types(ragged("l", [[1], [2], [3]], 4, "int64"), [0] * 3)
    with_ndims = plus(numbers(), Buf(5, U8, 3, b"\1\1\1"))
    rank_0 = ragged("z", [tensor("int8", [1], ())] * 3, 3, "int8")
    rank_2 = ragged("g", [tensor("int8", [1], (1, 1))] * 3, 3, "int8")
    for name, col in (("types", with_types()), ("ndims", with_ndims), ("rank_0", rank_0), ("rank_2", rank_2), ("ndarray", infer("n", [1, 2, 3])), ("text", infer("s", ["a", "b", "c"])),
                      ("bytes", infer("b", [b"a", b"b", b"c"])), ("media_list", infer("m", [[b"a"]] * 3)), ("null", infer("x", [N] * 3)), ("dict", infer("d", [{}] * 3)), ("list", infer("e", [[]] * 3))):
        record("b13_prefix_" + name, "B13", plus(col, *zeros()), "prefix_row", "prefix_row with: " + name, rows=3)
    record("b13_prefix_length_text", "B13", plus(infer("s", ["a", "b", "c"]), zeros()[1]), "prefix_length", "text with prefix_length alone", rows=3)
    record("b13_prefix_length_types", "B13", plus(with_types(), zeros()[1]), "prefix_length", "prefix_length beside types", rows=3)
    absent_buffer("no_prefix_length", plus(numbers(), zeros()[0]), "prefix_row without prefix_length", 3)
    absent_buffer("no_prefix_row", plus(numbers(), zeros()[1]), "prefix_length without prefix_row", 3)
    record("b13_count_prefix_row", "B13", plus(numbers(), zeros(4)[0], zeros()[1]), "prefix_row", "prefix_row of 4 rows of 3", rows=3)
    record("b13_count_prefix_length", "B13", plus(numbers(), zeros()[0], zeros(2)[1]), "prefix_length", "prefix_length of 2 rows of 3", rows=3)
    record("b13_shared_prefix_row", "B13", plus(repeat(numbers(), 0, 1, 2, 2), *zeros(4)), "prefix_row", "prefix_row of 4 rows, 3 of them stored")
    record("b13_shared_prefix_length", "B13", plus(repeat(numbers(), 0, 1, 2, 2), zeros()[0], zeros(4)[1]), "prefix_length", "prefix_length of 4 rows, 3 of them stored")


MANY = 2**48


def many(name, codec=4, extent=0, *bufs, validity=None, stored=MANY):
    """2^48 rows of int8 in a few records: rows of one extent, rank 1 (codec 2: single numbers)."""
    col = Col(name, 1, range(MANY), codec, (0, 8, 1), 2, 0 if codec == 2 else 1)
    col.bufs = [Buf(1, (0, 8, 1), stored * (1 if codec == 2 else extent), b"\0", storage="constant")]
    if codec != 2:
        col.bufs.append(computed(2, stored + 1, 0, extent))
    if validity is not None:
        col.bufs.append(Buf(6, BIT, MANY, bytes([validity]), storage="constant"))
    return plus(col, *bufs)


def invalid_references():
    """I13 and I14; what other rules ask of stored rows."""
    def bad(name, rule, col, role, i, why, rows=4, size=8, dim=0):
        b = Batch(rows, [col])
        path = b.nodes[0].path
        record = b.buffer(path, 0, role, dim)
        storage = b.bytes[record + 6]
        invalid(name, b, rule, record + 40 if storage in (3, 4) else b.element(path, role, i * size, dim), why)

    def index(stored, values, cells=None, storage=None):
        return shared(stored, cells or [stored.cells[0]] * len(values), values).store(*([storage, "row_index"] if storage else ()))

    text = lambda: blob("s", ["ab", "", "c"], 8)
    bad("i13_beyond", "I13", index(text(), [0, 2, 3, 9]), "row_index", 2, "stored row 3 of 3")
    bad("i13_huge", "I13", index(text(), [0, 2, 1, 2**64 - 1]), "row_index", 3, "stored row 2^64 - 1")
    bad("i13_absent", "I13", index(text(), [0, 1, 0, 2], ["ab", N, N, "c"]), "row_index", 1, "stored row 1 of an absent cell")
    bad("i13_missing", "I13", index(text(), [0, 0, 0, 7], ["ab", N, "ab", M]), "row_index", 3, "stored row 7 of a missing cell")
    bad("i13_inline", "I13", index(blob("s", ["ab"], 8), [0, 1]), "row_index", 1, "stored row 1 of 1, inline", rows=2)
    bad("i13_ndarray", "I13", index(ndarray("n", [1, 2], "int8"), [0, 1, 2, 0]), "row_index", 2, "stored row 2 of 2, ndarray")
    bad("i13_shape", "I13", index(ndarray("n", [array("int8", [1, 2])], "int8", (2,)), [0, 0, 1, 0]), "row_index", 2, "stored row 1 of 1, ndarray of 2 elements")
    bad("i13_items", "I13", index(media_list("m", [[b"a", b"b"], [b"c"]]), [0, 1, 2, 0]), "row_index", 2, "stored row 2 of 2, 3 items")
    bad("i13_no_stored_rows", "I13", shared(blob("s", [], 8), [N, "", N, N], [0] * 4).store("stored", "row_index"), "row_index", 1, "a present cell, and no stored rows")
    bad("i13_constant", "I13", index(text(), [3] * 20), "row_index", 0, "a constant beyond the stored rows", rows=20)
    bad("i13_constant_absent", "I13", index(text(), [1] * 20, ["ab"] * 19 + [N]), "row_index", 19, "a constant other than 0, and an absent cell", rows=20)
    bad("i13_constant_all_absent", "I13", index(text(), [1] * 20, [N] * 20), "row_index", 0, "a constant other than 0, and no present cell", rows=20)
    words = blob("s", ["w%d" % i for i in range(20)], 8)
    bad("i13_sequence", "I13", index(words, list(range(1, 21))), "row_index", 19, "a sequence whose last is too large", rows=20)
    bad("i13_sequence_down", "I13", index(words, list(range(20, 0, -1))), "row_index", 0, "a sequence whose first is too large", rows=20)
    bad("i13_sequence_absent", "I13", index(words, list(range(20)), [N] + ["w1"] * 17 + [N, "w1"]), "row_index", 18, "a sequence, and an absent cell", rows=20)
    for name, stored, buf, validity, why in (("constant", 1, (1,), None, "a constant"), ("sequence", MANY - 1, (0, 1), None, "a sequence whose last is too large"),
                                             ("sequence_down", MANY - 1, (MANY - 1, -1), None, "a sequence whose first is too large"), ("absent", MANY, (0, 1), 0, "a sequence, and no present cell"),
                                             ("constant_absent", MANY, (5,), 0, "a constant, and no present cell"), ("validity", MANY // 2, (0, 1), 1, "a sequence that leaves the stored rows half way")):
        bad("i13_2_48_" + name, "I13", many("n", 2, 0, computed(10, MANY, *buf), validity=validity, stored=stored), "row_index", 0, "2^48 rows: " + why, rows=MANY)
    bad("i13_2_48_ragged", "I13", many("t", 4, 3, computed(10, MANY, 0, 1), stored=MANY - 7), "row_index", 0, "2^48 rows: a sequence, typed_ragged", rows=MANY)
    b = Batch(MANY, [repeat_many(blob("s", ["text"], 8))])
    invalid("d9_row_index", b, "D9", b.buffer("s", 16, "row_index"), "2^48 references of 8 bytes")
    b = Batch(MANY, [many("n", 2, 0, computed(10, MANY, MANY - 1, -1))])
    invalid("d9_row_index_down", b, "D9", b.buffer("n", 16, "data"), "2^48 stored rows, in the other order")
    b = Batch(MANY, [many("t", 4, 2**31, computed(10, MANY, 2**31 - 1), computed(11, 2**31, 0), computed(12, 2**31, 0, 1), stored=2**31)])
    invalid("d9_prefixes", b, "D9", b.buffer("t", 16, "data"), "2^31 prefixes of the first stored row")
    invalid_prefixes(bad)
    invalid_stored_rows(bad)


def repeat_many(stored):
    col = copy.copy(stored)
    col.cells, col.rows = range(MANY), MANY
    return plus(col, computed(10, MANY, 0))


def invalid_prefixes(bad):
    def prefix(name, rows, lengths, role, i, why, cells=((1, 2, 3), (1, 2), (1, 2, 3, 4)), order=None):
        col = plus(numbers(cells=cells), *refs(rows, lengths)).store()
        bad("i14_" + name, "I14", repeat(col, *order).store() if order else col, role, i, why, rows=len(order or rows))

    prefix("absent", [0, 0, 0], [0, 0, 1], "prefix_length", 2, "a prefix of an absent cell", ((1, 2, 3), (1, 2), N))
    prefix("absent_beyond", [0, 7, 0], [0, 1, 0], "prefix_length", 1, "a prefix of an absent cell, of a row that is not there", ((1, 2, 3), N, (1,)))
    prefix("absent_row", [0, 0, 1], [0, 0, 0], "prefix_row", 2, "a prefix_row of an absent cell", ((1, 2, 3), (1, 2), N))
    prefix("row_without_length", [0, 0, 1], [0, 2, 0], "prefix_row", 2, "prefix_row without prefix_length")
    prefix("row_huge_without_length", [2**64 - 1, 0, 0], [0, 2, 0], "prefix_row", 0, "prefix_row 2^64 - 1 without prefix_length")
    prefix("beyond", [0, 3, 0], [0, 1, 1], "prefix_row", 1, "stored row 3 of 3")
    prefix("beyond_huge", [0, 0, 2**64 - 1], [0, 1, 1], "prefix_row", 2, "stored row 2^64 - 1")
    prefix("itself", [0, 1, 0], [0, 1, 1], "prefix_row", 1, "a row that refers to itself")
    prefix("chain", [0, 0, 1], [0, 2, 1], "prefix_row", 2, "a leader that refers to another")
    prefix("chain_after", [1, 2, 0], [1, 1, 0], "prefix_row", 0, "a leader after that refers to another")
    prefix("each_other", [1, 0, 0], [1, 1, 0], "prefix_row", 0, "two rows that refer to each other")
    prefix("too_short", [0, 0, 0], [0, 2, 4], "prefix_length", 2, "4 elements of a leader of 3")
    prefix("too_short_huge", [0, 0, 0], [0, 2**64 - 1, 1], "prefix_length", 1, "2^64 - 1 elements of a leader of 3")
    prefix("leader_absent", [0, 0, 1], [0, 0, 1], "prefix_length", 2, "a leader that is an absent cell", ((1, 2, 3), N, (1, 2)))
    prefix("leader_empty", [0, 0, 1], [0, 0, 1], "prefix_length", 2, "a leader of no elements", ((1, 2, 3), (), (1, 2)))
    prefix("first_row_first", [0, 0, 1], [0, 9, 0], "prefix_length", 1, "row 1 is too long, and row 2 has a prefix_row alone")
    prefix("row_before_length", [0, 9, 0], [0, 9, 0], "prefix_row", 1, "row 1 refers beyond the rows, and is too long")
    prefix("shared_beyond", [0, 3, 0], [0, 1, 1], "prefix_row", 1, "row 3, which is one of 5 rows and none of 3 stored rows", order=(0, 1, 2, 2, N))
    prefix("shared_too_short", [0, 0, 0], [0, 2, 4], "prefix_length", 2, "4 elements of a leader of 3, which no row refers to", order=(0, 1, 0, 1, N))
    twenty = lambda n=1: growing("p", [20] + [n] * 19, codec=4)
    for name, col, role, why in (("constant_row", plus(twenty(), computed(11, 20, 1), computed(12, 20, 0)), "prefix_row", "prefix_row 1 of all, without prefix_length"),
                                 ("constant_both", plus(twenty(), computed(11, 20, 0), computed(12, 20, 1)), "prefix_row", "a prefix of each row: no leader"),
                                 ("constant_beyond", plus(twenty(), computed(11, 20, 20), computed(12, 20, 1)), "prefix_row", "stored row 20 of 20"),
                                 ("sequence_row", plus(twenty(), computed(11, 20, 0, 1), computed(12, 20, 0)), "prefix_row", "prefix_rows without prefix_length"),
                                 ("sequence_too_long", plus(twenty(), computed(11, 20, 0), computed(12, 20, 0, 2)), "prefix_length", "prefix_lengths of up to 38, a leader of 20")):
        bad("i14_" + name, "I14", col, role, 0, why, rows=20)
    for name, extent, row, length, validity, role, why in (
            ("row", 3, (1,), (0,), None, "prefix_row", "prefix_row 1 of all, without prefix_length"),
            ("rows", 3, (0, 1), (0,), None, "prefix_row", "prefix_rows without prefix_length"),
            ("both", 3, (0,), (1,), None, "prefix_row", "a prefix of each row: no leader"),
            ("beyond", 3, (MANY,), (1,), None, "prefix_row", "stored row 2^48 of 2^48"),
            ("itself", 3, (0, 1), (0, 1), None, "prefix_row", "each row refers to itself"),
            ("chain", 3, (MANY - 1, -1), (0, 1), None, "prefix_row", "prefix_row without prefix_length, then leaders that refer to others"),
            ("too_long", 2**13, (0,), (0, 1), None, "prefix_length", "prefix_lengths beyond a leader of 2^13"),
            ("too_long_down", 3, (MANY - 1,), (MANY - 1, -1), None, "prefix_length", "prefix_lengths that descend to a leader of 3 at the end"),
            ("leader_not_zero", 3, (1,), (0, 1), None, "prefix_row", "prefix_row 1 of all, also of the first row"),
            ("absent", 0, (0,), (1,), 0, "prefix_length", "prefixes of absent cells"),
            ("absent_sequence", 0, (0,), (0, 1), 0, "prefix_length", "prefixes of absent cells but the first"),
            ("absent_row", 0, (0, 1), (0,), 0, "prefix_row", "prefix_rows of absent cells"),
            ("extent_0", 0, (0,), (0, 1), 1, "prefix_length", "prefixes of a leader of no elements")):
        bad("i14_2_48_" + name, "I14", many("t", 4, extent, computed(11, MANY, *row), computed(12, MANY, *length), validity=validity), role, 0, "2^48 rows: " + why, rows=MANY)
    col = many("t", 4, 2**13, computed(11, 2**31, 2**31 - 1), computed(12, 2**31, 2**31 - 1, -1), computed(10, MANY, 0), stored=2**31)
    bad("i14_shared_down", "I14", col, "prefix_length", 0, "prefix_lengths that descend to a leader at the end, too short for the first", rows=MANY)
    col = many("t", 4, 2**31, computed(11, 2**31, 2**31 - 1), computed(12, 2**31, 2**31 - 1, -1), computed(10, MANY, 0), stored=2**31)
    bad("i14_leader_with_row", "I14", col, "prefix_row", 0, "prefix_lengths that descend to a leader at the end, which has a prefix_row", rows=MANY)


def invalid_stored_rows(bad):
    """Rules about stored rows, of rows that no cell refers to."""
    unused = lambda stored: repeat(stored, 0, N, 0, 0).store()
    grids = lambda: ragged("g", [tensor("int8", [1, 2], (2, 1)), tensor("int8", [3])], 3, "int8")
    bad("i7_shared", "I7", unused(plus(without(blob("s", ["ab", "c"], 8), "offsets"), u64s(2, [0, 4, 3]))), "offsets", 2, "offsets of stored rows that descend")
    bad("i10_shared_ndims", "I10", unused(plus(without(grids(), "ndims"), Buf(5, U8, 2, b"\2\3"))), "ndims", 1, "3 dimensions of a stored row of rank 2", size=1)
    bad("i10_shared_dim", "I10", unused(plus(without(grids(), "shape", 1), u64s(4, [1, 7], 1))), "shape", 1, "dim 1 of a stored row of one dimension", dim=1)
    bad("i11_shared", "I11", unused(plus(without(grids(), "shape", 0), u64s(4, [2, 2], 0))), "offsets", 2, "a dimension of 2 and 1 element of a stored row")
    bad("i12_shared", "I12", unused(blob_types(ndarray("n", [1, 2], "int64"), [0, 3])), "types", 1, "number type 3 of a stored row", size=1)
    bad("i12_shared_item", "I12", unused(blob_types(media_list("m", [[b"a"], [b"b"]]), [0, 0x20])), "types", 1, "form array of a stored item", size=1)
    col = unused(blob_types(ndarray("n", [1, 2], "int64"), [0, 3]))
    validity = next(b for b in col.bufs if b.role == 6)
    validity.packing, validity.raw = 2, b"payload"
    bad("i12_shared_packed_validity", "I12", col, "types", 1, "number type 3 of a stored row, validity of unknown packing", size=1)
    bad("d3_shared", "D3", unused(plus(without(ndarray("b", [True, False], "bool"), "data"), Buf(1, (6, 8, 1), 2, b"\1\2"))), "data", 1, "a stored row that is neither 0 nor 1", size=1)
    bad("d5_shared", "D5", unused(blob_types(ndarray("n", [1.5, 2.5], "float64"), [0, 2])), "data", 1, "a stored row that is no int")
    bad("d6_shared", "D6", unused(blob("s", ["", ""], 8, [b"ok", b"\xff"])), "data", 2, "a stored row that is not UTF-8", size=1)
    bad("d7_shared", "D7", unused(blob("j", [1, 2], 9, [b"1", b"null"])), "data", 1, "a stored row that is null", size=1)
    bad("d8_shared", "D8", unused(blob("m", [1, 2], 10, [b"\1", b"\xc0"])), "data", 1, "a stored row that is nil", size=1)


BAD_JSON = [  # name, text, the byte where it stops being JSON
    ("empty", b"", 0), ("space", b"  ", 2), ("null", b"null", 0), ("null_spaced", b" null ", 1), ("bom", b"\xef\xbb\xbf1", 0), ("two_values", b"1 2", 2), ("comma_end", b"[1,]", 3),
    ("comma_start", b"[,1]", 1), ("comma_top", b"1,", 1), ("object_comma", b'{"a":1,}', 7), ("object_colon", b'{"a" 1}', 5), ("object_key", b"{1:2}", 1), ("open_list", b"[1", 2),
    ("open_object", b'{"a":1', 6), ("open_key", b'{"a"', 4), ("open_string", b'"abc', 4), ("wrong_close", b"[1}", 2), ("close_only", b"]", 0), ("zero_lead", b"01", 1), ("minus", b"-", 1),
    ("minus_letter", b"-a", 1), ("plus", b"+1", 0), ("point_end", b"1.", 2), ("point_start", b".5", 0), ("exponent_end", b"1e", 2), ("exponent_sign", b"[1e+]", 4), ("hex", b"0x1", 1),
    ("beyond_float", b"[1e309]", 1), ("beyond_float_negative", b"-1e400", 0), ("true_cut", b"tru", 3), ("true_case", b"True", 0), ("nul", b"[nul]", 4), ("nan_case", b"nan", 1),
    ("minus_nan", b"-NaN", 1), ("infinity_cut", b"-Infinit", 8), ("control", b'"a\nb"', 2), ("control_0", b'"\x00"', 1), ("escape_x", b'"\\x41"', 2), ("escape_end", b'"\\', 2),
    ("escape_u", b'"\\u12g4"', 5), ("escape_u_cut", b'"\\u12', 5), ("lone_high", b'"ab\\ud800"', 3), ("lone_low", b'"\\udc00"', 1), ("high_high", b'"\\ud800\\ud800"', 1),
    ("high_letter", b'"\\ud800x"', 1), ("duplicate", b'{"a":1,"a":2}', 7), ("duplicate_escaped", b'{"a":1,"\\u0061":2}', 7), ("duplicate_inside", b'[{"k":1,"j":2, "k" :1}]', 15),
    ("utf8", b'"ab\xff"', 3), ("utf8_surrogate", b'"\xed\xa0\x80"', 1), ("utf8_cut", b'"\xc3"', 1), ("utf8_key", b'{"\x80":1}', 2), ("letter_before_utf8", b'[Z,"\xff"]', 1), ("utf8_before_letter", b'["\xff",Z]', 2), ("cut_after_utf8", b'["\xff"', 2), ("utf8_in_pair", b'"\\ud83d\\\xf4"', 8), ("utf8_after_half", b'"\\ud83d\xf4"', 7), ("utf8_after_null", b"null\xff", 4), ("single_quotes", b"'a'", 0), ("comment", b"1//x", 1),
    ("formfeed", b"\x0c1", 0), ("vertical_tab", b"[1,\x0b2]", 3)]

BAD_MSGPACK = [  # name, bytes, the byte where they stop being MessagePack
    ("key_map_cut", b"\x81\xdf\1", 3), ("key_list_cut", b"\x81\xdc\1", 3), ("key_cut_behind", b"\x81\xdc\0\1", 1),
    ("empty", b"", 0), ("nil", b"\xc0", 0), ("c1", b"\xc1", 0), ("c1_inside", b"\x92\1\xc1", 2), ("two_objects", b"\1\2", 1), ("short_list", b"\x92\1", 2), ("short_map", b"\x81\1", 2),
    ("short_str", b"\xa3ab", 3), ("short_str8", b"\xd9", 1), ("short_bin", b"\xc4\5abc", 5), ("short_int", b"\xcd\1", 2), ("short_float", b"\xcb\0\0\0", 4), ("short_ext", b"\xd4", 1),
    ("short_ext8", b"\xc7\5\1abc", 6), ("list_4g", b"\xdd\xff\xff\xff\xff\1", 6), ("map_4g", b"\xdf\xff\xff\xff\xff\1\1", 7), ("str_4g", b"\xdb\xff\xff\xff\xff" + b"x", 6),
    ("utf8", b"\xa3a\xffb", 2), ("utf8_cut", b"\xa2a\xc3", 2), ("c1_before_utf8", b"\x92\xc1\xa1\xff", 1), ("utf8_before_cut", b"\x93\xa1\xff\1", 2), ("key_list", b"\x81\x90\1", 1), ("key_map", b"\x82\1\1\x80\1", 3), ("key_media", b"\x81\xd4\3\x80\1", 1), ("duplicate_int", b"\x82\1\1\xcc\1\2", 3),
    ("duplicate_str", b"\x82\xa1a\1\xd9\1a\2", 4), ("duplicate_float", b"\x82\xca\x3f\x80\0\0\1\xcb\x3f\xf0\0\0\0\0\0\0\2", 7), ("duplicate_nil", b"\x82\xc0\1\xc0\2", 3), ("timestamp", b"\xd6\xff\0\0\0\0", 0),
    ("ext_0", b"\xd4\0\0", 0), ("ext_5", b"\xd4\5\0", 0), ("int_small", b"\xd4\1" + b"1", 0), ("int_fits", b"\xc7\x14\1" + b"18446744073709551615", 0), ("int_fits_negative", b"\xc7\x14\1-9223372036854775808", 0),
    ("int_zeros", b"\xc7\x15\1" + b"018446744073709551616", 0), ("int_plus", b"\xc7\x15\1" + b"+18446744073709551616", 0), ("int_empty", b"\xc7\0\1", 0), ("int_space", b"\xc7\x15\1" + b"18446744073709551616 ", 0),
    ("tensor_form", b"\xc7\5\2\1\1\x08\0\7", 0), ("tensor_dtype", b"\xc7\5\2\2\x63\x08\0\7", 0), ("tensor_bit", b"\xc7\5\2\2\1\1\0\1", 0), ("tensor_rank_9", b"\xc7\x4d\2\2\1\x08\x09" + b"\1\0\0\0\0\0\0\0" * 9 + b"\7", 0),
    ("tensor_short", b"\xd6\2\2\1\x08\0", 0), ("tensor_long", b"\xc7\6\2\2\1\x08\0\7\7", 0), ("tensor_shape", b"\xc7\x0d\2\2\1\x08\1\2\0\0\0\0\0\0\0\7", 0), ("tensor_wraps",
     b"\xc7\x14\2\2\1\x08\2" + b"\0\0\0\0\1\0\0\0" * 2, 0), ("tensor_bool", b"\xc7\5\2\2\6\x08\0\2", 0), ("scalar_rank", b"\xc7\x0d\2\4\1\x08\1\1\0\0\0\0\0\0\0\7", 0), ("tensor_empty", b"\xc7\0\2", 0),
    ("media_no_map", b"\xd4\3\1", 0), ("media_unknown", b"\xc7\6\3\x81\xa3abc\1", 0), ("media_order", b"\xc7\x0f\3\x82\xa5width\1\xa6height\1", 0), ("media_twice", b"\xc7\x0f\3\x82\xa5width\1\xa5width\1", 0),
    ("media_type", b"\xc7\x08\3\x81\xa5width\xc0", 0), ("media_rate_int", b"\xc7\7\3\x81\xa4rate\1", 0), ("media_mime_int", b"\xc7\7\3\x81\xa4mime\1", 0), ("media_beyond_int64", b"\xc7\x10\3\x81\xa5width\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 0),
    ("opaque_no_name", b"\xd4\4\1", 0), ("opaque_cut", b"\xd4\4\xa1", 0), ("opaque_utf8", b"\xd5\4\xa1\xff", 0), ("inside_list", b"\x92\1\xd4\5\0", 2)]


# ---- the files ---------------------------------------------------------------------------------------------------------------------------


def files():
    for build in (valid_canonical, valid_codecs, valid_layouts, valid_unknown, valid_shared, valid_sharing, invalid_header, invalid_nodes, invalid_buffers, invalid_metadata, invalid_index, invalid_data,
                  invalid_shared_layout, invalid_references):
        build()
    packings.valid_packings(sys.modules[__name__])
    packings.invalid_packings(sys.modules[__name__])
    errors = rule_errors()
    out = {}
    for name, (raw, tagged) in VALID.items():
        out["valid/%s.pbuf" % name] = raw
        out["valid/%s.json" % name] = tagged.encode()
    for file, names in (("canonical", CANONICAL), ("canonical_packed", PACKED)):
        out["valid/%s.txt" % file] = "".join(n + "\n" for n in sorted(names)).encode()
    lines = []
    for name, (raw, level, rule, at, why) in INVALID.items():
        out["invalid/%s.pbuf" % name] = raw
        lines.append("%s.pbuf\t%s\t%s\t%s\t%d\t%s\n" % (name, level, rule, errors[rule], at, why))
    out["invalid/index.tsv"] = "".join(lines).encode()
    return out


def rule_errors():
    """The error of each rule, from the table of section 13."""
    text = (HERE.parent / "packbuf.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([HNBMSID]\d+) \| ([A-Z_0-9]+) \|", text, re.M))


def main(arguments):
    out = files()
    if arguments == ["--check"]:
        there = {str(p.relative_to(HERE)).replace("\\", "/") for d in ("valid", "invalid") for p in (HERE / d).iterdir()}
        wrong = sorted(n for n in there ^ set(out)) + sorted(n for n in there & set(out) if (HERE / n).read_bytes() != out[n])
        if wrong:
            sys.exit("spec/vectors: run build.py; these differ: " + " ".join(wrong))
        return
    for d in ("valid", "invalid"):
        (HERE / d).mkdir(exist_ok=True)
        for p in (HERE / d).iterdir():
            if str(p.relative_to(HERE)).replace("\\", "/") not in out:
                p.unlink()
    for name, raw in out.items():
        (HERE / name).write_bytes(raw)


if __name__ == "__main__":
    main(sys.argv[1:])
