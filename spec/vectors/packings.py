"""The vectors of packing in blocks (packbuf.md, sections 19 and 20): what build.py lists, and what blocks.py packs.

Valid ones of any choice: one batch for each T with every mode, buffers of several blocks, every role of the index, aliases, unknown packings; canonical
ones of profiles 1 to 3; and an invalid one for each thing that B5, B11, B14, I15, I16, I17 and D10 forbid.
"""
import copy
import struct

import blocks
from blocks import dictionary, frame, line, lines, lines_of, plain, split, zero
from sharing import splitmix64

UNITS = {8: ("uint8", "int8", "float8_e5m2"), 16: ("uint16", "bfloat16", "int16", "float16"), 32: ("int32", "float32", "uint32"), 64: ("uint64", "int64", "float64")}
B = {t: 65536 // t for t in UNITS}   # units of a block
L = {t: 1024 // t for t in UNITS}    # units of a row
ROW_BYTES = 128


def noise(seed, count, bits):
    """That many numbers of so many bits."""
    return [x >> 64 - bits if bits else 0 for x in splitmix64(count, seed)]


def raw_of(units, t):
    return b"".join((u % (1 << t)).to_bytes(t // 8, "little") for u in units)


def run(to, name, dtype, units):
    """A column of one row: a tensor of these units."""
    t = to.DTYPES[dtype][1]
    return to.ragged(name, [to.Tensor(3, dtype, (len(units),), raw_of(units, t))], 3, dtype)


def force(to, col, role, *choices, dim=0):
    """Packs a buffer of the column so."""
    b = next(b for b in col.bufs if (b.role, b.dim) == (to.ROLES.get(role, role), dim))
    b.storage, b.packing, b.packed = "stored", 1, blocks.lay(b.raw, b.dtype, choices)
    return col


def force_all(to, col, choose):
    """Packs every buffer of the subtree that may be packed; choose: of the units of a block, T and the buffer."""
    col = copy.copy(col)
    col.bufs = [copy.copy(b) for b in col.bufs]
    for b in col.bufs:
        if b.count and blocks.allowed(b.dtype) and not (b.role == 1 and 5 <= col.codec <= 11):
            t = blocks.width_of(b.dtype)
            b.storage, b.packing = "stored", 1
            b.packed = blocks.lay(b.raw, b.dtype, [choose(units, t, b) for units in blocks.blocks_of(b.raw, t)])
    col.children = [force_all(to, child, choose) for child in col.children]
    return col


def any_frame(units, t, b):
    """The frame of unsigned units, with one bit to spare where there is room."""
    base = min(units)
    return frame(base, min((max(units) - base).bit_length() + 1, t))


def any_zero(units, t, b):
    base = min((u for u in units if u not in blocks.zeros(t)), default=1)
    return zero(base, max(min((max(units) - base + 2).bit_length(), t), 1))


def any_line(units, t, b):
    pieces = blocks.cover(units, t)
    return lines(t, *pieces) if pieces else any_frame(units, t, b)


def least(units, t, b):
    return blocks.choose(units, b.dtype, blocks.Recipe(True, True))


# ---- valid: each mode ---------------------------------------------------------------------------------------------------------------------


def in_rows(t, *parts):
    """Units of whole rows: of each part a number repeated, or a list of one row."""
    return [u for part in parts for u in (part if isinstance(part, list) else [part] * L[t])]


def on_lines(t, n, pieces):
    """The n units of these lines: (first, value, step)."""
    ends = [piece[0] for piece in pieces[1:]] + [n]
    return [(value + i * step) % (1 << t) for (first, value, step), end in zip(pieces, ends) for i in range(end - first)]


def cases(t):
    """name, units, choice: of one short block each."""
    top, row, n = 1 << t, L[t], L[t] + L[t] // 2 + 3
    some = noise(t, n, t)
    yield "plain", some, plain()
    yield "plain_1", some[:1], plain()
    yield "constant", [5] * n, line(5)
    yield "line", [(top - 3 + 127 * i) % top for i in range(n)], line(top - 3, 127)
    yield "line_down", [(7 - 128 * i) % top for i in range(n)], line(7, -128)
    yield "line_of_1", [(9 + (top // 2 + 1) * i) % top for i in range(n)], lines(t, (0, 9, top // 2 + 1))
    for name, pieces in (("lines", [(i * (i + 3), 11 * i % top, (i - 6) % top) for i in range(12)]), ("lines_of_one_step", [(i * i, top - 1 - (77 * i & 255), -128) for i in range(9)]),
                         ("lines_64", [(i, some[i], top // 2 + i) for i in range(min(n, 64))])):
        pieces = [piece for piece in pieces if piece[0] < n]
        yield name, on_lines(t, n, pieces), lines(t, *pieces)
    pieces = [(0, 3, 5), (4, 3, 5), (9, 200, 5)]
    for v, s in [(v, s) for v in (1, 2, 4, 8) for s in (0, 1, 2, 4, 8) if max(v, s) <= t // 8]:
        yield "lines_%d_%d" % (v, s), on_lines(t, 20, pieces), lines_of(2, 0 if s else 5, v, s, *pieces)
    equal = [(first, 7, step) for first, _, step in pieces]
    yield "lines_of_one_value", on_lines(t, 20, equal), lines_of(7, 5, 0, 0, *equal)
    for width in sorted({1, 3, t // 2 + 1, t - 1, t}):
        base = some[0] if width < t - 1 else top - 2  # beyond the end they begin again at 0
        yield "frame_%d" % width, [(base + x) % top for x in noise(width, n, width)], frame(base, width)
        codes = [x for x in noise(width, n - 2, width) + [0, (1 << width) - 1] if x < 2 or (base + x - 2) % top not in blocks.zeros(t)]
        yield "zero_%d" % width, [(base + x - 2) % top if x > 1 else blocks.zeros(t)[x] for x in codes], zero(base, width)
    yield "frame_shift", [(3 + (x << t // 4)) % top for x in noise(1, n, t // 2)], frame(3, t // 2, t // 4)
    yield "frame_shift_most", [(x << t - 1) % top for x in noise(2, n, 1)], frame(0, 1, t - 1)
    for width in sorted({1, (t - 8) // 2, t - 8} - {0}):
        if t > 8:
            tops = [x if x < 40 and i % 3 else 0 for i, x in enumerate(noise(3, n, 8))]
            yield "split_%d" % width, [x + (byte << width) for x, byte in zip(noise(4, n, width), tops)], split(width)
            yield "split_%d_no_byte" % width, noise(5, n, width), split(width)
            yield "split_%d_all_bytes" % width, [x + (1 + i % 255 << width) for i, x in enumerate(noise(6, n, width))], split(width)
    for shift, count in {16: ((0, 1), (0, 32), (7, 32), (10, 2), (12, 16), (15, 2)), 32: ((16, 32), (23, 1), (23, 5), (31, 2))}.get(t, ()):
        tops = sorted({x for x in noise(7, 4 * count + 8, t - shift)})[:count]
        yield "dictionary_%d_%d" % (shift, len(tops)), [(tops[x % len(tops)] << shift) + y for x, y in zip(noise(8, n, 16), noise(9, n, shift))], dictionary(shift, *tops)


def fills(t):
    """Likewise of rows of which some are filled; the last has half its units."""
    top, half = 1 << t, L[t] // 2
    parts = {"plain": (noise(10, L[t], t), plain()), "frame": ([top - 9 + x for x in noise(11, L[t], 3)], frame(top - 9, 3)),
             "zero": ([100 + x - 2 if x > 1 else blocks.zeros(t)[x] for x in noise(12, L[t], 4)], zero(100, 4))}
    if t > 8:
        parts["split"] = [(x << 2) + 1 for x in noise(13, L[t], 3)], split(1 if t == 16 else 3)
    if t in (16, 32):
        parts["dictionary"] = [(x % 3 << t - 8) + 5 for x in noise(14, L[t], 8)], dictionary(t - 8, 0, 1, 2)
    for name, (dense, choice) in parts.items():
        yield name + "_last", in_rows(t, 7, dense[::-1], 7, 7, dense)[:-half], choice.filled(7)
        yield name + "_first", in_rows(t, dense, top - 1, dense, top - 1)[:-half], choice.filled(top - 1)
        yield name + "_all_dense", in_rows(t, dense, dense[::-1]), choice.filled(0)
    yield "frame_one", in_rows(t, 0, [0] * (L[t] - 1) + [1], 0), frame(0, 1).filled(0)


def valid_modes(to):
    for t, dtypes in UNITS.items():
        for group, made in (("modes", cases(t)), ("filled", fills(t))):
            cols = []
            for i, (name, units, choice) in enumerate(made):
                cols.append(force(to, run(to, name, dtypes[i % len(dtypes)], units), "data", choice))
                if i % 5 == 0:  # plain ones lie before all the packed
                    cols.append(run(to, "beside_%d" % i, "uint8", noise(i, 40, 8)))
            to.valid("blocks_%s_%d" % (group, t), to.Batch(1, cols))


def valid_several_blocks(to):
    """Full blocks, and a last one of one unit or more: 8 KiB each."""
    for t, dtype, tail in ((8, "int8", 1), (16, "bfloat16", 65), (64, "int64", 200)):
        low, row = noise(20 + t, B[t], 3), L[t]
        units = [4] * B[t] + [9] * (B[t] - row) + low[:row] + low[:tail]
        choices = [line(4), frame(0, 3).filled(9), plain()]
        to.valid("blocks_several_%d" % t, to.Batch(1, [force(to, run(to, "r", dtype, units), "data", *choices)]))
    units = noise(30, B[16], 16)
    to.valid("blocks_full_plain", to.Batch(1, [force(to, run(to, "r", "uint16", units + [1]), "data", plain(), line(1))]))
    to.valid("blocks_no_payload", to.Batch(1, [force(to, run(to, "r", "uint64", [3] * B[64] + list(range(B[64])) + [8]), "data", line(3), line(0, 1), line(8)),
                                               force(to, run(to, "s", "int8", [1]), "data", line(1, 100))]))
    worked = [1000 + i * i % 29 for i in range(150)]  # the example of section 20
    to.valid("blocks_worked", to.Batch(1, [force(to, run(to, "r", "uint16", worked), "data", frame(1000, 5))]))
    low = noise(33, B[32], 3)
    to.valid("blocks_full_last", to.Batch(1, [force(to, run(to, "r", "float32", low), "data", zero(1, 4))]))
    units = [i & 1 for i in range(B[64])]
    full = [(x & 7) + (9 << 3 if i % 2 else 0) for i, x in enumerate(noise(31, B[64], 3))]
    to.valid("blocks_full_split", to.Batch(1, [force(to, run(to, "r", "int64", full + units[:70]), "data", split(3), split(1))]))


def valid_small(to):
    """One buffer each: small enough for tests that flip every bit."""
    row = L[32]
    for name, units, choice in (("plain", noise(34, 20, 32), plain()), ("lines", [1, 2, 3, 4, 9, 9, 9, 5], lines(32, (0, 1, 1), (4, 9, 0), (7, 5, 0))), ("frame", noise(35, 20, 3), frame(0, 3)),
                                ("zero", noise(36, 20, 3), zero(1, 4)), ("split", [x + 16 * (i % 2) for i, x in enumerate(noise(37, 20, 4))], split(4)),
                                ("dictionary", [(4, 7, 8)[i % 3] << 23 for i in range(20)], dictionary(23, 4, 7, 8)),
                                ("filled", in_rows(32, 6, noise(38, row, 3), 6, noise(39, 9, 3)), frame(0, 3).filled(6)),
                                ("filled_split", in_rows(32, 6, [x + 16 * (i % 2) for i, x in enumerate(noise(40, 9, 4))]), split(4).filled(6))):
        to.valid("blocks_small_" + name, to.Batch(1, [force(to, run(to, "u", "uint32", units), "data", choice)]))
    col = to.blob("s", ["a", "bc", "", "def", "g"], 8)
    to.valid("blocks_small_offsets", to.Batch(5, [force(to, col, "offsets", any_line(blocks.units_of(next(b for b in col.bufs if b.role == 2).raw, 64), 64, None))]))


def valid_roles(to):
    """Every buffer of every codec that may be in blocks, also those that no profile packs."""
    for name, choose in (("frame", any_frame), ("lines", any_line)):
        cols, vals = to.rich_columns(), [to.infer("v", [{"x": 1}]), to.infer("w", ["text"])]
        to.valid("blocks_rich_" + name, to.Batch(5, [force_all(to, col, choose) for col in cols], [force_all(to, col, choose) for col in vals]))
    for name, choose in (("plain", lambda units, t, b: plain()), ("zero", any_zero), ("least", least)):
        cols = []
        for kind, col in to.stored_columns():
            col.name = kind
            cols.append(to.repeat(col, 0, 1, to.N, 2, 2, to.M, 0))
        cols += [to.repeat(to.prefixed(to.growing("prefixes", [3, 6, 2, 6]), [(1, 3), None, (1, 2), (1, 4)]), 0, 1, 2, to.N, 3, 3, 2)]
        to.valid("blocks_roles_" + name, to.Batch(7, [force_all(to, col, choose) for col in cols]))
    rows = [to.N if i % 5 == 0 else i % 7 for i in range(70)]
    text = ["" if i % 3 else "row %d" % i for i in range(70)]
    cols = [force(to, to.ndarray("n", rows, "float32"), "data", any_zero(blocks.units_of(to.ndarray("n", rows, "float32").bufs[0].raw, 32), 32, None)),
            force(to, to.blob("s", text, 8), "offsets", any_frame(blocks.units_of(to.blob("s", text, 8).bufs[1].raw, 64), 64, None)),
            force(to, to.ndarray("b", [i % 4 == 0 for i in range(70)], "bool"), "data", frame(0, 1))]
    to.valid("blocks_beside_plain", to.Batch(70, cols))


def valid_layouts(to):
    units = noise(40, 100, 4)

    def packed(name="a", dtype="int32"):
        return force(to, run(to, name, dtype, units), "data", frame(0, 4))

    def alias(name, dtype="int32"):
        return run(to, name, dtype, units).store("alias", "data")

    to.valid("blocks_aliases", to.Batch(1, [run(to, "before", "int32", units[::-1]), packed(), alias("b"), alias("c"), run(to, "other", "uint32", units), run(to, "after", "int16", units)]))
    text = ["x" * (i % 3) for i in range(30)]
    offsets = blocks.units_of(to.blob("s", text, 8).bufs[1].raw, 64)
    cols = [force(to, to.blob("s", text, 8), "offsets", any_frame(offsets, 64, None)), to.blob("t", [s.upper() for s in text], 8).store("alias", "offsets"),
            to.ndarray("n", list(range(30)), "int8")]
    to.valid("blocks_aliases_in_index", to.Batch(30, cols))
    plain_one = run(to, "plain", "int32", units[::-1]).store("stored", "data")
    for name, options in (("no_checksums", {"checksums": False}), ("alignment_9", {"exponent": 9}), ("room", {"room": 3}), ("strides", {"strides": (72, 80, 40, 8), "junk": 0xEE})):
        to.valid("blocks_" + name, to.Batch(1, [packed(), plain_one, packed("c", "int64")], **options))
    to.valid("room_of_a_plain_buffer", to.Batch(3, [to.infer("s", ["a", "b", "longer than the record"])], room=2))
    to.valid("room_without_data", to.Batch(3, [to.infer("a", [1, 2, 4])], room=1))
    to.valid("blocks_beside_unknown", beside_unknown(to))
    for name, packing, raw in (("2", 2, b"x" * 100), ("255", 255, b""), ("2_before", 2, b"y")):
        unknown = to.unreadable(run(to, "u", "int32", units), "PACKING")
        unpack_not(unknown, packing, raw)
        cols = [unknown, packed(), plain_one] if name == "2_before" else [packed(), plain_one, unknown]
        b = to.Batch(1, cols)
        b.poke(b.buffer("u", 40, "data"), "QQ", 2**64 - 1, 7)
        b.seal()
        to.valid("unknown_packing_with_parameters_" + name, b)
    to.valid("unknown_packing_of_blocks", to.Batch(1, [unpack_not(to.unreadable(run(to, "u", "int64", range(2 * B[64] + 1)), "PACKING"), 77, b"three headers"), packed()]))
    alias = to.unreadable(run(to, "v", "int32", units).store("alias", "data"), "PACKING")
    to.valid("unknown_packing_alias", to.Batch(1, [unpack_not(to.unreadable(run(to, "u", "int32", units), "PACKING"), 2, None), alias, packed(dtype="int64")]))
    empty = unpack_not(to.unreadable(to.ragged("u", [to.tensor("int32", [])], 3, "int32"), "PACKING"), 2, b"nothing")
    to.valid("unknown_packing_no_elements", to.Batch(1, [empty, packed()]))


def unpack_not(col, packing, raw):
    """The column, its data stored as raw (None: as they are) in a packing that is not known."""
    data = next(b for b in col.bufs if b.role == 1)
    data.storage, data.packing, data.raw = "stored", packing, data.raw if raw is None else raw
    return col


def valid_not_looked_at(to):
    """What no profile writes, and a reader takes."""
    def batch(dtype, units, choice):
        return to.Batch(1, [force(to, run(to, "u", dtype, units), "data", choice)])

    def set_bits(b, byte, bits):
        at = b.element("u", "data", byte)
        b.poke(at, "I", struct.unpack_from("<I", b.bytes, at)[0] | bits)
        b.seal()

    b = batch("uint32", [1] * 40, frame(0, 20))  # a lane has bits 0 to 19 of row 0, 20 to 39 of row 1, which lanes 8 to 31 lack, and 24 to spare
    for lane in range(32):
        set_bits(b, 4 * lane, 0xFFF00000 if lane >= 8 else 0)
        set_bits(b, ROW_BYTES + 4 * lane, 0xFFFFFFFF if lane >= 8 else 0xFFFFFF00)
    to.valid("blocks_spare_bits", b)
    tops = [3, 5, 6]
    units = [(tops[i % 3] << 23) + i for i in range(64)]
    b = batch("float32", [units[0], (3 << 23) + 1, *units[2:]], dictionary(23, *tops))
    set_bits(b, 64 + 4, 3 << 23)
    to.valid("blocks_code_beyond_tops", b)
    units = noise(50, 64, 4)
    b = batch("int32", [u + (1 << 4) if i == 9 else u for i, u in enumerate(units)], split(4))
    place = b.element("u", "data", blocks.code_bytes(2, 4, 32))
    b.poke(place, "Q", 1 << 9 | 1 << 20)  # the byte of unit 20 is 0
    b.seal()
    to.valid("blocks_split_zero_byte", b)
    for name, rows in (("", 1), ("_filled", 3)):  # bits of units that the last row lacks have bytes too
        units = in_rows(32, *[6] * (rows - 1)) + noise(51, 20, 4)
        choice = split(4).filled(6) if rows > 1 else split(4)
        b = batch("uint32", units[:-1] + [5 + (9 << 4)], choice)
        ahead = blocks.code_bytes(1, 4, 32) + 64 * (rows > 1)
        b.poke(b.element("u", "data", ahead), "I", 1 << 19 | 1 << 20 | 1 << 31)
        b.poke(b.element("u", "data", ahead + 64), "BBB", 9, 200, 0)
        b.seal()
        to.valid("blocks_split_beyond_units" + name, b)
    to.valid("blocks_zero_codes_wrap", batch("uint8", [0, 255, 128, 1, 2, 254], zero(254, 3)))


# ---- valid: canonical --------------------------------------------------------------------------------------------------------------------

NAMES = {0: "plain", 1: "balanced", 2: "fastest", 3: "smallest"}
ASKED = {"none": (0,), "balanced": (1,), "fastest": (2,), "smallest": (3,), "keep_plain": (None, True)}


def canonical(to, name, fields, profiles=(1, 2, 3), rows=None, asked=None, **options):
    """The content as profiles write it. asked: what fields ask for themselves, by name: a packing, or keep_plain."""
    for profile in profiles:
        cols = [to.infer(n, cells).asking(*ASKED[asked[n]]) if n in (asked or {}) else to.infer(n, cells) for n, cells in fields.items()]
        b = to.Batch(rows or len(next(iter(fields.values()))), [to.share(col, profile) for col in cols], profile=profile, **options)
        to.valid("%s_%s" % (NAMES[profile], name), b, canonical=True, asked=asked)


def tensor(to, dtype, units):
    return [to.Tensor(3, dtype, (len(units),), raw_of(units, to.DTYPES[dtype][1]))]


def floats(values):
    return struct.unpack("<%dI" % len(values), struct.pack("<%df" % len(values), *values))


def contents(to):
    """Runs of a few KiB: name -> (dtype, units)."""
    n = 170
    ids = [x % 90 if i % 9 else x % 151936 for i, x in enumerate(noise(100, n, 20))]
    mask = [i // 150 % 2 for i in range(1400)]
    probabilities = floats([-(x % 4096) / 1024 - 0.001 if i % 3 else 0.0 for i, x in enumerate(noise(101, 512, 16))])
    yield "ids", "int64", ids
    yield "ids32", "int32", ids
    yield "ids_unsigned", "uint64", ids
    yield "signed", "int32", [x - 100 for x in noise(102, n, 8)]
    yield "signed_small", "int8", [x - 3 for x in noise(103, n, 3)]
    yield "shifted", "uint16", [x << 4 | 9 for x in noise(104, n, 6)]
    yield "mask", "bool", mask
    yield "mask_of_noise", "bool", noise(105, n, 1)
    yield "mask64", "int64", mask[:1100]
    yield "log_probs", "float32", probabilities[:480]
    yield "log_probs_bfloat", "bfloat16", [u >> 16 for u in probabilities]
    yield "one_sign", "float32", floats([1 + x / 2**20 for x in noise(106, n, 20)])
    yield "tops_bfloat", "bfloat16", [(x % 5 + 120 << 7 | x >> 8) & 0xFFFF for x in noise(107, n, 15)]
    yield "tops_half", "float16", [x % 4 * 5 << 10 | x >> 6 for x in noise(108, 512, 16)]
    yield "tops_float", "float32", [x % 3 * 100 << 23 | x >> 9 for x in noise(109, n, 32)]
    yield "rewards", "float64", [0 if i % 7 else 0x3FF0 << 48 | x for i, x in enumerate(noise(110, n, 40))]
    yield "positions", "int64", [i % 90 for i in range(500)]
    yield "steps", "uint64", [10**12 + 1000 * i for i in range(200)]
    yield "ramps", "int32", [i % 50 * (1 + i // 50) for i in range(650)]
    yield "noise", "uint32", noise(111, n, 32)
    yield "noise8", "uint8", noise(112, n, 8)
    yield "rare", "float32", [0] * 300 + [0x3F800000, 0x40000000, 0x3F800001] + [0] * 200
    yield "float8", "float8_e4m3fn", [x + 40 if x else 0 for x in noise(113, n, 4)]
    yield "float8_of_signs", "float8_e5m2", [(x + 40 if x > 1 else 0) + 128 * (x == 1) for x in noise(118, 300, 4)]
    yield "both_zeros", "bfloat16", [x % 16 + 0x7000 if x > 99 else 0x8000 * (x > 30) for x in noise(119, 300, 7)]
    yield "one_zero", "float32", [x % 64 + 2**31 - 40 if x > 99 else 2**31 for x in noise(140, 200, 7)]
    yield "only_zeros", "float64", [x << 63 for x in noise(141, 70, 1)]
    yield "zero_as_wide", "float32", [7] * 96 + [0] + noise(114, 31, 32) + [7] * 100
    yield "complex", "complex64", [x % 4 for x in noise(115, 60, 16)]
    yield "bytes_255", "uint8", noise(116, 255, 1)
    yield "bytes_256", "uint8", noise(117, 256, 1)


def edges():
    """Runs on both sides of what decides."""
    for count in 24, 25:
        yield "lines_%d" % count, "int32", [value + k * (i + 1) for i, value in enumerate(noise(220, count, 30)) for k in range(8)]
    for name, dtype, bits, steps in (("one_step", "int64", 40, [-128]), ("step_of_2_bytes", "int64", 3, [128]), ("steps", "int64", 7, [-1, 1, 5]), ("steps_4", "uint64", 60, [1, -2**31]),
                                     ("steps_8", "int64", 16, [1, 2**31]), ("steps_of_bytes", "uint8", 8, [1, 3, 200]), ("steps_of_halves", "uint16", 9, [1, -129])):
        yield name, dtype, [value + k * steps[i % len(steps)] for i, value in enumerate(noise(221, 3 if dtype == "uint8" else 9, bits)) for k in range(100 if dtype == "uint8" else 15)]
    yield "line_up_in_bytes", "uint8", [7 * i % 256 for i in range(300)]
    yield "lines_as_long_as_frame", "uint8", [i // 12 * 3 % 4 + i % 12 for i in range(256)]
    yield "lines_longer_than_frame", "uint32", [value + k * (200 if value % 2 else 150) for value in noise(230, 24, 9) for k in range(3)]
    for rows, fills in ((16, 1), (17, 1), (17, 2)):
        yield "fill_%d_of_%d" % (fills, rows), "uint32", in_rows(32, *[noise(222 + i, 32, 11) for i in range(rows - fills)], *[77] * fills)
    yield "fill_not_less", "uint32", in_rows(32, *[noise(222 + i, 32, 2) for i in range(15)], 3)
    yield "two_at_the_end", "int32", [0] * 78 + [5, 9]
    yield "one_at_the_end", "int32", [0] * 78 + [5]
    yield "above_the_sign", "uint8", [x + 120 for x in noise(180, 300, 4)]
    yield "both_signs", "float32", [x << 12 | 0x7FFFF000 for x in noise(181, 100, 1)] + [0x80000000 + x for x in noise(182, 100, 12)]
    yield "headers_too_much", "uint8", noise(183, 960, 7)
    yield "headers_just_not", "uint8", noise(184, 973, 7)
    yield "just_packed", "uint8", noise(185, 640, 8) + [9] * 128
    yield "partial_row", "uint8", [9] * 256 + [x + 1 for x in noise(186, 40, 3)]
    yield "two_fills", "uint32", in_rows(32, noise(187, 32, 32), 7, 9, noise(188, 32, 32), 9)
    tops = sorted({x for x in noise(189, 40, 7)})[:24]
    yield "dictionary_just_not", "float32", [tops[x % 24] << 23 | x >> 9 for x in noise(190, 512, 32)]
    yield "dictionary_and_fill", "float16", in_rows(16, *([(0, 5, 10, 15)[x % 4] << 10 | x >> 6 for x in noise(191 + i, 64, 16)] if i % 2 else 7 for i in range(16)))
    yield "split_decides", "uint32", [x >> 8 if i % 9 else x for i, x in enumerate(noise(210, 512, 32))]


def valid_canonical(to):
    runs = {name: tensor(to, dtype, units) for name, dtype, units in contents(to)}
    canonical(to, "runs", runs, (1,))
    canonical(to, "runs", {name: runs[name] for name in ("ids", "ids32", "mask", "log_probs", "positions", "rare")}, (2,))
    canonical(to, "runs", {name: runs[name] for name in ("ids", "log_probs", "log_probs_bfloat", "tops_bfloat", "tops_half", "tops_float", "rewards", "rare")}, (3,))
    canonical(to, "edges", {name: tensor(to, dtype, units) for name, dtype, units in edges()}, (3,))
    wide = [x % 2**12 if x >> 20 < 900 else x % 2**20 for x in noise(160, B[64], 32)]
    row = list(range(B[64]))
    few = [x % 8 if x >> 8 else 600 + x for x in noise(161, B[64], 12)]
    seven_eighths = [[x % 8 + (0x90 << 3) * (i < 896 + more) for i, x in enumerate(noise(168, B[64], 8))] for more in (0, 1)]
    canonical(to, "edges_of_split", {"seven_eighths": [noise(169, B[64], 3)[:-1] + [0x90 << 3] + seven_eighths[0] + seven_eighths[1] + few[:500]], "just_not": [[x if x % 2**20 >> 12 or i % 9 else i for i, x in enumerate(wide)]], "beside_a_line": [row + few],
                                     "a_filled_last_row": [[3] * B[64] + noise(162, 80, 64) + [2**63] * 8]}, (1, 3))
    shifted, plus_1, plus_2 = [4 * x for x in noise(163, B[64], 3)], [x % 6 + 1 for x in noise(164, B[64], 8)], [x % 6 + 2 for x in noise(165, 90, 8)]
    filled = [x if i % 64 < 32 else 0 for i, x in enumerate(noise(166, B[64], 3))]
    canonical(to, "guesses_not_made", {"shift": [shifted + plus_1 + plus_2], "fill": [filled + noise(167, B[64], 3) + plus_1]}, (2,))
    canonical(to, "guesses_narrower", {"a": [noise(168, B[64], 3) + noise(169, B[64], 2) + noise(170, B[64], 3)]}, (2,))
    eight = [noise(171 + i, B[64], 3) for i in range(8)]
    eight[2] = [x if i % 512 < 16 else 0 for i, x in enumerate(eight[2])]
    eight[5] = [i // 128 for i in range(B[64])]
    canonical(to, "one_of_eight", {"a": [[u for units in eight for u in units]]}, (1, 2))
    nine = [noise(144 + i, B[64], 3) for i in range(9)]
    nine[4] = [x if i % 512 < 16 else 0 for i, x in enumerate(nine[4])]
    nine[7] = [i // 128 for i in range(B[64])]
    canonical(to, "one_of_nine", {"a": [u for units in nine for u in units]}, (1, 3))
    lengths = [x % 6 for x in noise(120, 90, 8)]
    text = ["word " * n for n in lengths]
    canonical(to, "rows", {"text": text, "again": [s.upper() for s in text], "tokens": [to.tensor("int64", noise(i, n, 7)) for i, n in enumerate(lengths)],
                           "lists": [[[i]] * n for i, n in enumerate(lengths)], "grid": [to.tensor("uint8", noise(i, 2 * n, 2), (n, 2)) for i, n in enumerate(lengths)],
                           "score": [x / 8 if x else to.N for x in noise(121, 90, 4)], "copy": [x / 8 if x else to.N for x in noise(121, 90, 4)],
                           "step": [x for x in noise(122, 90, 5)], "json": [{"k": i, "v": [n]} if n else [n] for i, n in enumerate(lengths)]}, (1,))
    text = "ab" * 200
    same = [to.Tensor(3, "uint8", (400,), text.encode())]
    canonical(to, "text_and_tensor", {"a": same, "b": [text], "c": [text], "d": same, "e": [text.encode()], "f": ["".join(reversed(text))],
                                      "g": [to.Tensor(3, "uint8", (400,), text[::-1].encode())]}, (1,))
    fields = {"a": 1, "none": "none", "b": 1, "none_too": "none", "keep": "keep_plain", "fastest": "fastest", "c": 1}
    lists = [noise(126 + i, n, 6) for i, n in enumerate(lengths)]
    equal = {n: lists for n in fields} | {"text": ["x" * n for n in lengths], "none_text": ["x" * n for n in lengths]}
    canonical(to, "equal_fields", equal, (1,), asked={n: word for n, word in fields.items() if word != 1} | {"none_text": "none"})
    canonical(to, "equal_fields", {n: equal[n] for n in ("fastest", "a", "none", "b")} | {"smallest": lists}, (0,), asked={"fastest": "fastest", "none": "none", "smallest": "smallest"})
    half = noise(123, 2300, 1)
    canonical(to, "masks", {"v": [to.M if i // 300 % 2 else to.N if x and i > 1200 else 7 for i, x in enumerate(half)]}, (1,))
    rows = ["the same prompt of group %d, again and again, for each response" % (i // 8) for i in range(80)]
    canonical(to, "shared", {"prompt": [to.tensor("int32", noise(i // 8, 16, 10)) for i in range(80)], "text": rows}, (1,))
    # rows that repeat, and are not shared where the data pack small: 31 blocks of 32 to one line each, or one block too few
    mask = lambda i, n, ones: to.tensor("int64", [int(k < ones) for k in range(n)])  # noqa: E731
    small = {"mask": [mask(i, 512, 100 + i // 8) for i in range(80)], "lists": [[i // 16] * (200 + i // 16) for i in range(80)], "null": [None if i % 5 == 0 else mask(i, 64, i // 40) for i in range(80)]}
    canonical(to, "small_rows", small | {"alone": small["mask"]}, (0, 1, 2, 3), asked={"alone": "balanced", "lists": "balanced"})
    below = {"d": [{"v": mask(i, 64, i // 8)} for i in range(80)]}  # as the batch's profile says, not as that of the node above
    canonical(to, "small_rows_below_packed", below, (0,), asked={"d": "balanced"})
    canonical(to, "small_rows_below_plain", below, (1,), asked={"d": "none"})
    some = [to.tensor("int32", noise(i // 4, 64, 8) if i % 32 < 4 else [i // 4] * 64) for i in range(128)]
    bits = [to.tensor("int32", noise(i // 4, 64, 1)) for i in range(128)]  # 272 bytes of 8192: a thirtieth
    canonical(to, "not_so_small_rows", {"v": some, "bits": bits}, (1, 2, 3))
    # the sample of six blocks is four of them: those it leaves out are not of lines when the others are not
    unseen = [x for k in range(6) for x in (list(range(k, k + B[64])) if k not in blocks.sample(6) else noise(146 + k, B[64], 20))]
    canonical(to, "sample", {"v": unseen}, (1, 2, 3))
    canonical(to, "alignment_8", {"a": tensor(to, "int64", noise(124, 600, 5)), "b": tensor(to, "int16", noise(125, 600, 16))}, (2,), exponent=8)
    join = lambda *parts: [u for part in parts for u in part]  # noqa: E731
    # the second and third block are tried as the first was chosen
    guessed = join(noise(130, B[64], 3), [x % 6 + 1 for x in noise(131, B[64], 8)], noise(132, B[64], 1), [x % 6 + 1 for x in noise(133, B[64], 8)], noise(134, 70, 2))
    canonical(to, "guesses", {"a": guessed, "z": [0] * 1024 + guessed[:3142]}, (2, 3))
    rare = [x % 8 if x >> 8 else 1000 + x for x in noise(135, B[64], 12)]
    small, many = noise(136, B[64], 3), [x % 8 + 1000 * (x % 16 != 9) for x in noise(137, B[64], 12)]
    canonical(to, "guesses_of_split", {"a": join(rare, [7] + small[1:], small[:-1] + [999], many, rare, small[:50])}, (1, 2))
    filled = [x if i // 64 % 8 == 0 else 0 for i, x in enumerate(noise(145, 2 * B[64] + 300, 4))]
    canonical(to, "filled", {"a": filled, "b": [i // 100 % 7 for i in range(len(filled))]}, (1, 3))


def valid_stripes(to):
    """Block 64 begins a stripe: it is chosen, though it could be tried as block 63 was chosen."""
    size, count = B[64], 66
    units = [1 + x % 6 if i // size in (3, 64, 65) else x % 8 for i, x in enumerate(noise(150, count * size + 9, 16))]
    for block in [k for k in range(66) if k not in blocks.sample(67)][:12]:  # blocks of one line, too many for a recipe without lines, if the sample saw them
        units[block * size:(block + 1) * size] = [5] * size
    canonical(to, "stripes", {"a": units}, (2,))


def valid_room(to):
    """More than 1 MiB of data if they were plain, and few when packed: 64 columns of a dict that few rows have."""
    canonical(to, "room", {"d": [{"k%d" % i: (i + 1) * row for i in range(64)} if row % 600 == 5 else to.N for row in range(2100)]}, (1,))


def valid_packings(to):
    for build in (valid_modes, valid_several_blocks, valid_small, valid_roles, valid_layouts, valid_not_looked_at, valid_canonical, valid_stripes, valid_room):
        build(to)


# ---- invalid -----------------------------------------------------------------------------------------------------------------------------


def record(b, path, role):
    return b.buffer(path, 0, role)


def u64(b, at):
    return struct.unpack_from("<Q", b.bytes, at)[0]


def header(b, path="u", role="data", block=0, field=0):
    """The place of a field of a block header."""
    return u64(b, record(b, path, role) + 56) + 16 * block + field


def place(b, path="u", role="data", block=0, byte=0):
    """The place of a byte of a payload."""
    return u64(b, record(b, path, role) + 24) + 64 * struct.unpack_from("<I", b.bytes, header(b, path, role, block, 8))[0] + byte


TYPE_OF = {8: "uint8", 16: "uint16", 32: "uint32", 64: "uint64"}


def one(to, t, units, *choices):
    """A plain buffer ahead, so that nothing lies at 0, and the packed one."""
    return to.Batch(1, [run(to, "before", "uint8", noise(1, 40, 8)), force(to, run(to, "u", TYPE_OF[t], units), "data", *choices)])


def several(to):
    """Six blocks of T = 64: frame, split, filled frame, line, lines, and a short plain one."""
    size = B[64]
    low = noise(60, size, 3)
    units = low + [x + (8 if i % 3 else 0) for i, x in enumerate(low)] + [9] * (size - 16) + low[:16] + [4] * size + list(range(size)) + noise(61, 40, 64)
    return one(to, 64, units, frame(0, 3), split(3), frame(0, 3).filled(9), line(4), lines(64, (0, 0, 1)), plain())


def invalid_headers(to):
    """I15: each field of each mode."""
    def bad(name, t, units, choice, field, why, *pokes):
        """pokes: (field, value); base is 0, the place 8, mode 12, width 13, shift 14 and extra 15."""
        b = one(to, t, units, choice)
        pokes = [(header(b, field=at), "Q" if at == 0 else "B", value) for at, value in pokes]
        to.invalid("i15_%s_%d" % (name, t), b, "I15", header(b, field=field), why, *pokes)

    lined = lambda t: lines(t, (0, 0, 1), (20, 5, 3))  # noqa: E731 - shift 0x10: steps of 1 byte
    for t in UNITS:
        some, low, most, units = noise(62, 40, t), noise(63, 40, 3), (1 << t) - 1, list(range(20)) + [5 + 3 * i for i in range(20)]
        bad("lines_step_bytes", t, units, lined(t), 14, "steps of %d bytes" % (2 * t // 8 if t < 64 else 15), (14, 1 | 2 * t // 8 << 4 if t < 64 else 0xF1))
        bad("lines_value_bytes", t, units, lined(t), 14, "values of %d bytes" % (2 * t // 8 if t < 64 else 15), (14, 16 | 2 * t // 8 if t < 64 else 0x1F))
        bad("frame_width_beyond", t, low, frame(0, 3), 13, "width T + 1", (13, t + 1))
        bad("frame_shift", t, low, frame(0, 3), 14, "width + shift beyond T", (14, t - 2))
        bad("zero_width_beyond", t, low, zero(1, 4), 13, "width T + 1", (13, t + 1))
        if t < 64:
            for name, units_, choice in (("frame", low, frame(0, 3)), ("zero", low, zero(1, 4)), ("line", [1] * 40, line(1)), ("lines", units, lined(t))):
                if name in ("frame", "lines") or t == 16:
                    bad(name + "_base", t, units_, choice, 0, "base 2^T", (0, most + 1))
        if t > 8:
            bad("split_width_beyond", t, low, split(2), 13, "width T - 7", (13, t - 7))
        else:
            bad("split", t, some, plain(), 13, "a split of units of 8 bits, which no width fits", (12, 4), (13, 1))
        if t in (8, 64):
            bad("dictionary", t, some, plain(), 12, "a dictionary of units of %d bits" % t, (12, 5), (13, 1))
        if t in (16, 32):
            shift = t - 4
            tops, topped = [x << shift for x in low], dictionary(shift, *range(8))
            bad("dictionary_width_more", t, tops, topped, 13, "width shift + 4 of 8 tops", (13, shift + 4))
            bad("dictionary_shift_t", t, tops, topped, 14, "shift T", (13, t), (14, t), (15, 0))
            bad("dictionary_width_beyond", t, tops, topped, 13, "width beyond T", (13, t - 1 + 5), (14, t - 1), (15, 31))
        if t == 16:
            bad("dictionary_width_0", t, tops, topped, 13, "width 0 of one top of 16 bits", (13, 0), (14, 0), (15, 0))
        if t != 32:  # the rest once
            continue
        for mode in (6, 127, 128 + 1, 128 + 6, 255):
            bad("mode_%d" % mode, t, some, plain(), 12, "mode %d" % mode, (12, mode))
        for name, units_, choice in (("plain", some, plain()), ("plain_filled", in_rows(t, 1, noise(64, L[t], t)), plain().filled(1))):
            for field, what in ((0, "base"), (13, "width"), (14, "shift"), (15, "extra")):
                bad("%s_%s" % (name, what), t, units_, choice, field, "%s of a block that has none" % what, (field, 1))
        bad("line_shift", t, [1] * 40, line(1), 14, "shift of a line without payload", (14, 16))
        bad("lines_width", t, units, lined(t), 13, "a width beside steps", (13, 1))
        bad("lines_width_of_3", t, units, lined(t), 13, "a width beside steps of 3 bytes", (13, 1), (14, 0x31))
        bad("lines_width_of_65", t, units, lined(t), 13, "a width beside steps, of 65 lines", (13, 1), (15, 65))
        for sizes in (3, 5, 15, 0x30, 0x70, 0x18, 0x81):
            bad("lines_shift_%02x" % sizes, t, units, lined(t), 14, "values of %d bytes, steps of %d" % (sizes & 15, sizes >> 4), (14, sizes))
        bad("lines_shift_of_65", t, units, lined(t), 14, "values of 3 bytes, of 65 lines", (14, 0x13), (15, 65))
        bad("lines_65", t, units, lined(t), 15, "65 lines", (15, 65))
        bad("lines_255", t, units, lined(t), 15, "255 lines", (15, 255))
        bad("lines_0", t, units, lined(t), 14, "shift of no lines", (15, 0))
        for name, choice in (("frame", frame(0, 3)), ("zero", zero(1, 4))):
            bad(name + "_width_0", t, low, choice, 13, "width 0", (13, 0))
            bad(name + "_width_255", t, low, choice, 13, "width 255", (13, 255))
            bad(name + "_extra", t, low, choice, 15, "extra", (15, 1))
        bad("frame_shift_255", t, low, frame(0, 3), 14, "shift 255", (14, 255))
        bad("zero_shift", t, low, zero(1, 4), 14, "shift of mode zero", (14, 1))
        bad("split_base", t, low, split(2), 0, "base of a split", (0, 1))
        bad("split_width_0", t, low, split(2), 13, "width 0", (13, 0))
        bad("split_shift", t, low, split(2), 14, "shift of a split", (14, 1))
        bad("split_extra", t, low, split(2), 15, "extra of a split", (15, 1))
        bad("dictionary_base", t, tops, topped, 0, "base of a dictionary", (0, 1))
        bad("dictionary_width_less", t, tops, topped, 13, "width shift + 2 of 8 tops", (13, t - 2))
        bad("dictionary_extra_32", t, tops, topped, 15, "33 tops", (13, t - 2), (14, t - 8), (15, 32))
        bad("dictionary_top_of_17", t, tops, topped, 14, "tops of 17 bits", (13, 15), (14, 15), (15, 0))
    b = several(to)
    to.invalid("i15_later_block", b, "I15", header(b, block=3, field=14), "shift of the 4th block", (header(b, block=3, field=14), "B", 1))
    b = several(to)
    to.invalid("i15_last_block", b, "I15", header(b, block=5, field=15), "extra of the 6th block, which is plain", (header(b, block=5, field=15), "B", 65))
    for path, role in (("s", "offsets"), ("n", "validity"), ("l", "lengths")):
        b = in_index(to)
        to.invalid("i15_" + role, b, "I15", header(b, path, role, 0, 12), "mode 6 of a buffer of the index", (header(b, path, role, 0, 12), "B", 6))
    b = beside_unknown(to)
    to.invalid("i15_unknown_codec", b, "I15", header(b, "u", "data", 0, 12), "mode 6 in a leaf of an unknown codec", (header(b, "u", "data", 0, 12), "B", 6))
    b = beside_unknown(to)
    to.invalid("i15_unknown_role", b, "I15", header(b, "r", 77, 0, 12), "mode 6 in a buffer of unknown role", (header(b, "r", 77, 0, 12), "B", 6))


def in_index(to, choose=any_frame):
    """Offsets, a bitmap and lengths in blocks, the text plain."""
    col = lambda name, cells: to.infer(name, cells)  # noqa: E731
    cols = [col("s", ["x" * (i % 3) for i in range(40)]), col("n", [i if i % 3 else to.N for i in range(40)]), col("l", [[to.N] * (i % 2) for i in range(40)])]
    for c in cols:
        for b in c.bufs:
            if b.role != 1:
                t = blocks.width_of(b.dtype)
                b.storage, b.packing, b.packed = "stored", 1, blocks.lay(b.raw, b.dtype, [choose(units, t, b) for units in blocks.blocks_of(b.raw, t)])
    return to.Batch(40, cols)


def beside_unknown(to):
    """Packed buffers of leaves that cannot be read."""
    units = noise(65, 40, 3)
    codec = force(to, to.Col("u", 1, [0], 200, (1, 32, 1), bufs=[to.Buf(1, (1, 32, 1), 40, raw_of(units, 32))]), "data", frame(0, 3))
    role = run(to, "r", "uint32", units)
    role.bufs.append(to.Buf(77, (0, 16, 1), 40, raw_of(units, 16)))
    role.bufs[-1].storage, role.bufs[-1].packing, role.bufs[-1].packed = "stored", 1, blocks.lay(raw_of(units, 16), (0, 16, 1), [frame(0, 3)])
    return to.Batch(1, [to.unreadable(codec, "CODEC"), to.unreadable(role, "ROLE"), run(to, "after", "int8", units)])


def invalid_places(to):
    """I16."""
    def bad(name, block, value, why):
        b = several(to)
        at = header(b, block=block, field=8)
        to.invalid("i16_" + name, b, "I16", at, why, (at, "I", value))

    b = several(to)
    places = [struct.unpack_from("<I", b.bytes, header(b, block=k, field=8))[0] for k in range(6)]
    end = u64(b, record(b, "u", "data") + 32) // 64
    bad("first", 0, 1, "the first payload is not at 0")
    for block, rule, field in ((0, "I15", 14), (1, "I16", 8)):  # where a payload ends is asked before the next header, the first place after its header
        b = several(to)
        at = header(b, block=block)
        to.invalid("%s_of_block_%d_with_both" % (rule.lower(), block), b, rule, at + field, "a place and a shift", (at + 8, "I", places[block] + 1), (at + 14, "B", 77))
    bad("gap", 1, places[1] + 1, "64 bytes after a frame that it does not have")
    bad("overlap", 1, places[1] - 1, "a frame that is 64 bytes short")
    bad("0_again", 1, 0, "the place of the block before")
    bad("descends_after_split", 2, places[1] - 1, "a place ahead of the split before")
    bad("beyond_after_split", 2, end + 1, "a place beyond the length")
    bad("beyond_after_split_huge", 2, 2**32 - 1, "a place far beyond the length")
    bad("descends_after_filled", 3, places[2] - 1, "a place ahead of the filled block before")
    bad("after_line", 4, places[4] + 1, "64 bytes after a line that has none")
    bad("after_lines", 5, places[5] - 1, "lines that are 64 bytes short")
    for name, units, choice in (("plain", noise(66, 40, 32), plain()), ("lines", list(range(40)), lines(32, (0, 0, 1))), ("line", [3] * 40, line(3)), ("frame", noise(67, 40, 3), frame(0, 3)),
                                ("zero", noise(68, 40, 3), zero(1, 4)), ("dictionary", noise(69, 40, 16), dictionary(16, 0))):
        for longer in (64, -64):
            col = force(to, run(to, "u", "uint32", units), "data", choice)
            data = next(b for b in col.bufs if b.role == 1)
            headers, payload = data.packed
            if longer < 0 and not payload:
                continue
            data.packed = headers, payload + bytes(64) if longer > 0 else payload[:-64]
            b = to.Batch(1, [col])
            to.invalid("i16_%s_%s" % (name, "longer" if longer > 0 else "shorter"), b, "I16", record(b, "u", "data") + 32, "a length other than what the mode needs")
    b = in_index(to)
    at = header(b, "s", "offsets", 0, 8)
    to.invalid("i16_offsets", b, "I16", at, "offsets whose first payload is not at 0", (at, "I", 1))


def faults(t):
    """name, units, choice, pokes on the payload (byte, format, value), why."""
    half, row, size = L[t] // 2, L[t], t // 8
    some = noise(70, row + half, t)
    letter = {8: "B", 16: "H", 32: "I", 64: "Q"}[t]
    yield "plain_end", some[:row + 1], plain(), [(ROW_BYTES + size, "B", 1)], "bytes after the units"
    three = [1, 2, 3, 4, 50, 60, 70, 80, 9, 9, 9, 9, 9, 9]
    pieces = (0, 1, 1), (4, 50, 10), (8, 9, 0)
    yield "lines_first", three, lines(t, *pieces), [(0, "H", 1)], "a first line that does not begin at 0"
    yield "lines_equal", three, lines(t, *pieces), [(2, "H", 8)], "two lines that begin at one unit"
    yield "lines_descend", three, lines(t, *pieces), [(2, "H", 9)], "lines that do not ascend"
    yield "lines_zero_twice", three, lines(t, *pieces), [(2, "H", 0)], "two lines that begin at 0"
    yield "lines_beyond", three, lines(t, *pieces), [(4, "H", 14)], "a line that begins beyond the units"
    yield "lines_huge", three, lines(t, *pieces), [(4, "H", 65535)], "a line that begins at 65535"
    yield "lines_end", three, lines(t, *pieces), [(3 * 4, "B", 1)], "bytes after the lines"
    yield "lines_last", three, lines(t, *pieces), [(63, "B", 1)], "a byte after the lines"
    dense = in_rows(t, 3, noise(71, row, 3), 3)[:-half]
    for name, choice in (("plain", plain()), ("frame", frame(0, 3)), ("zero", zero(1, 4))):
        choice = choice.filled(3)
        yield name + "_filled_none", dense, choice, [(0, "Q", 0)], "no dense row"
        yield name + "_filled_beyond", dense, choice, [(0, "Q", 8)], "a dense row that is not there"
        yield name + "_filled_beyond_far", dense, choice, [(7, "B", 0x80)], "dense row 63 of 3 rows"
        yield name + "_filled_fill", dense, choice, [(8 + size, "B", 1)], "bytes after the fill"
        yield name + "_filled_fill_end", dense, choice, [(63, "B", 1)], "the last byte after the fill"
    yield "plain_filled_more", dense, plain().filled(3), [(0, "Q", 3)], "two dense rows, one in the payload"
    many = in_rows(t, *(noise(72 + i, row, t) for i in range(2)), 3)
    yield "plain_filled_less", many, plain().filled(3), [(0, "Q", 1)], "one dense row, two in the payload"
    if t > 8:
        bitmap = blocks.code_bytes(2, 3, t)
        units = [x + (9 << 3 if i < 64 and i % 2 else 0) for i, x in enumerate(noise(73, row + half, 3))]
        count = sum(1 for u in units if u >> 3)
        yield "split_bitmap_end", units, split(3), [(bitmap + 2 * row // 8, "B", 1)], "bytes after the bitmap"
        if t < 64:
            yield "split_no_byte_beyond", [8] * 64 + [0] * (row + half - 64), split(3), [(bitmap + (row + half) // 8, "B", 1)], "65 bits, one of them of a unit that the last row lacks, and 64 bytes"
        yield "split_bytes_end", units, split(3), [(bitmap + 64 * -(-2 * row // 512) + count, "B", 1)], "bytes after those of the bits"
        rows = 2 if t <= 32 else 6
        units = [x + ((9 << 3) if i < 64 else 0) for i, x in enumerate(noise(74, rows * row, 3))]
        bitmap = blocks.code_bytes(rows, 3, t)
        if len(units) > 64:
            yield "split_more", units, split(3), [(bitmap + 8, "B", 1)], "65 bits, 64 bytes"
        units[-1] |= 8 << 3 if len(units) > 64 else 0
        units = units if len(units) > 64 else [x | 8 << 3 for x in noise(75, 2 * row, 3)] + [8 << 3]
        if sum(1 for u in units if u >> 3) == 65:
            rows = -(-len(units) // row)
            yield "split_less", units, split(3), [(blocks.code_bytes(rows, 3, t), "B", 0xFE)], "64 bits, 65 bytes"
        filled = in_rows(t, 7, [x + (8 if i % 2 else 0) for i, x in enumerate(noise(76, row, 3))], 7)
        at = 64 + blocks.code_bytes(1, 3, t)
        yield "split_filled_bitmap_end", filled, split(3).filled(7), [(at + row // 8, "B", 1)], "bytes after the bitmap"
        yield "split_filled_bytes_end", filled, split(3).filled(7), [(at + 64 + row // 2, "B", 1)], "bytes after those of the bits"
        yield "split_filled_none", filled, split(3).filled(7), [(0, "Q", 0)], "no dense row"
        yield "split_filled_beyond", filled, split(3).filled(7), [(0, "Q", 8)], "a dense row that is not there"
    if t in (16, 32):
        shift = t - 8
        units = [(5, 6, 9)[i % 3] << shift for i in range(row + half)]
        choice = dictionary(shift, 5, 6, 9)
        yield "dictionary_equal", units, choice, [(2, "H", 5)], "two equal tops"
        yield "dictionary_descends", units, choice, [(2, "H", 10)], "tops that do not ascend"
        yield "dictionary_too_large", units, choice, [(4, "H", 256)], "a top of 9 bits"
        yield "dictionary_rest", units, choice, [(6, "H", 10)], "a top more than extra says"
        yield "dictionary_last", units, choice, [(63, "B", 1)], "a byte after the tops"
        units = in_rows(t, 1, units[:row], 1)
        yield "dictionary_filled_rest", units, choice.filled(1), [(64 + 6, "H", 10)], "a top more than extra says"
        yield "dictionary_filled_none", units, choice.filled(1), [(0, "Q", 0)], "no dense row"


def cut_payloads(to):
    """name, column, why: payloads whose length only they themselves tell, too long or too short."""
    row = L[32]
    filled = lambda dense: in_rows(32, 3, dense, 3)  # noqa: E731
    made = (("split", noise(80, 40, 5), split(3)), ("plain_filled", filled(noise(81, row, 32)), plain().filled(3)), ("frame_filled", filled(noise(82, row, 3)), frame(0, 3).filled(3)),
            ("zero_filled", filled(noise(83, row, 3)), zero(1, 4).filled(3)), ("split_filled", filled(noise(84, row, 5)), split(3).filled(3)),
            ("dictionary_filled", filled([x << 20 for x in noise(85, row, 1)]), dictionary(20, 0, 1).filled(3)))
    for name, units, choice in made:
        for how, change in (("longer", lambda p: p + bytes(64)), ("shorter", lambda p: p[:-64]), ("64_bytes", lambda p: p[:64]), ("empty", lambda p: b"")):
            col = force(to, run(to, "u", "uint32", units), "data", choice)
            data = next(b for b in col.bufs if b.role == 1)
            data.packed = data.packed[0], change(data.packed[1])
            yield "%s_%s" % (name, how), col, "a payload of another length than its content says"


def invalid_payloads(to):
    """I17 and D10."""
    for t in UNITS:
        for name, units, choice, pokes, why in faults(t):
            b = one(to, t, units, choice)
            if t == 32 or t == 16 and name in ("split_bitmap_end", "split_no_byte_beyond", "dictionary_too_large") or t == 64 and name in ("split_bitmap_end", "split_less", "split_filled_bitmap_end"):
                to.invalid("d10_%s_%d" % (name, t), b, "D10", place(b), why, *((place(b, byte=byte), fmt, value) for byte, fmt, value in pokes))
            if t == 64 and not name.endswith(("_descend", "_twice", "_beyond_far", "_fill_end")) or t == 8 and name in ("plain_end", "lines_beyond", "frame_filled_beyond"):  # of the dtypes that roles of the index have; the rules of those come later
                role, dtype = (8, "types") if t == 8 else (12, "prefix_length")
                col = to.Col("u", 1, [0], 200, (1, 8, 1), bufs=[to.Buf(role, (1, t, 1), len(units), raw_of(units, t))])
                b = to.Batch(1, [run(to, "before", "uint8", noise(1, 40, 8)), force(to, col, dtype, choice)])
                to.invalid("i17_%s_%d" % (name, t), b, "I17", place(b, "u", dtype), why, *((place(b, "u", dtype, byte=byte), fmt, value) for byte, fmt, value in pokes))
    for name, col, why in cut_payloads(to):
        b = to.Batch(1, [run(to, "before", "uint8", noise(1, 40, 8)), col])
        to.invalid("d10_%s" % name, b, "D10", place(b), why)
    b = several(to)
    to.invalid("d10_third_block", b, "D10", place(b, block=2), "no dense row", (place(b, block=2), "Q", 0))
    b = several(to)
    to.invalid("d10_fifth_block", b, "D10", place(b, block=4), "a first line that does not begin at 0", (place(b, block=4), "H", 1))
    b = in_index(to, any_line)
    to.invalid("i17_validity", b, "I17", place(b, "n", "validity"), "a first line that does not begin at 0", (place(b, "n", "validity"), "H", 1))
    b = in_index(to, lambda units, t, b: plain())
    to.invalid("i17_offsets", b, "I17", place(b, "s", "offsets"), "bytes after the offsets", (place(b, "s", "offsets", byte=41 * 8), "B", 1))


def invalid_records(to):
    """B5, B9, B11, B12 and B14 of packed buffers; what lies between them."""
    units = noise(90, 40, 3)

    def bad(name, rule, field, why, *pokes, b=None, path="u", role="data"):
        b = b or one(to, 32, units, frame(0, 3))
        at = record(b, path, role)
        to.invalid(name, b, rule, at + field, why, *((at + place, fmt, *values) for place, fmt, *values in pokes))

    col = to.Col("u", 1, [0], 200, (1, 8, 1), bufs=[to.Buf(77, (5, 64, 1), 40, raw_of(units, 64))])
    bad("b14_unknown_role_dtype", "B14", 8, "complex64 in a buffer of unknown role", b=to.Batch(1, [force(to, col, 77, frame(0, 3))]), role=77)
    for name, dtype, t in (("complex64", (5, 64, 1), 64), ("lanes", (1, 32, 2), 64), ("unknown_dtype", (99, 32, 1), 32), ("int4", (0, 4, 1), 32), ("float128", (2, 128, 1), 64), ("odd_bits", (1, 24, 1), 32)):
        col = to.Col("u", 1, [0], 2, dtype, 3, 1, (40,), bufs=[to.Buf(1, dtype, 40, raw_of(units, t)[:to.byte_length(40, dtype)].ljust(to.byte_length(40, dtype), b"\0"))])
        data = col.bufs[0]
        data.storage, data.packing, data.packed = "stored", 1, (bytes(16), bytes(64))
        bad("b14_" + name, "B14", 8, "a dtype that is not packed", b=to.Batch(1, [col]))
    empty = to.ragged("u", [to.tensor("int32", [])], 3, "int32")
    next(b for b in empty.bufs if b.role == 1).storage = "stored"
    bad("b14_no_elements", "B14", 16, "no elements", (7, "B", 1), b=to.Batch(1, [empty]))
    b = to.Batch(1, [force(to, to.ragged("t", [to.tensor("uint8", b"text" * 5)], 3, "uint8"), "data", plain()), to.blob("u", ["text" * 5], 8).store("alias", "data")])
    bad("b14_alias_of_a_tensor", "B14", 7, "data of codec 8, an alias of a packed tensor", b=b)
    for length in (1, 63, 65, 2**63 + 1):
        bad("b14_length_%d" % length, "B14", 32, "a length that is no multiple of 64", (32, "Q", length))
    bad("b14_value_first", "B14", 40, "value of a packed buffer", (40, "B", 1))
    bad("b14_value_last", "B14", 40, "value of a packed buffer", (55, "B", 1))
    bad("b14_validity_value", "B14", 40, "value of a packed bitmap", (48, "B", 1), b=in_index(to), path="n", role="validity")
    bad("b5_packed_alias_of", "B5", 12, "alias_of of a packed buffer", (12, "I", 1))
    bad("b5_headers_of_plain", "B5", 56, "headers_offset of what is plain", (7, "B", 0))
    for codec, cell in ((5, b"text"), (6, to.Media(b"text")), (7, [b"text"]), (8, "text"), (9, {"a": 1}), (10, {"a": 1}), (11, to.Opaque("pickle", b"text"))):
        col = to.media_list("u", [cell]) if codec == 7 else to.media("u", [cell]) if codec == 6 else to.blob("u", [cell], codec, parameter="pickle" if codec == 11 else "")
        bad("b14_codec_%d" % codec, "B14", 7, "data of codec %d" % codec, b=to.Batch(1, [force(to, col, "data", plain())]))
    bad("b14_codec_before_length", "B14", 7, "data of codec 8, and a length", (32, "Q", 1), b=to.Batch(1, [force(to, to.blob("u", ["text"], 8), "data", plain())]))
    bad("b14_codec_of_an_alias", "B14", 7, "an alias that is called packed", (7, "B", 1), b=to.Batch(1, [to.blob("t", ["text" * 5], 8), to.blob("u", ["text" * 5], 8).store("alias", "data")]))
    for name, pokes, why in (("count", ((16, "Q", 39),), "count"), ("length", ((32, "Q", 64),), "length"), ("headers", ((56, "Q", 64),), "headers_offset"), ("offset", ((24, "Q", 64),), "offset"),
                             ("packing", ((7, "B", 0), (56, "Q", 0)), "packing"), ("unknown_packing", ((7, "B", 2),), "packing"), ("no_target", ((12, "I", 77),), "alias_of")):
        b = to.Batch(1, [force(to, run(to, "a", "int32", units), "data", frame(0, 3)), run(to, "u", "int32", units).store("alias", "data")])
        bad("b9_packed_" + name, "B9", 12, "an alias of a packed buffer with another " + why, *pokes, b=b)
    b = one(to, 32, units, frame(0, 3))
    at = u64(b, record(b, "u", "data") + 56)
    for name, value, why in (("zero", 0, "0"), ("hole", at + 64, "a hole"), ("before", at - 64, "ahead of the cursor"), ("odd", at + 8, "not at a multiple of the alignment"),
                             ("in_data", b.data_at, "in the data"), ("huge", 2**64 - 64, "2^64 - 64")):
        bad("b11_headers_" + name, "B11", 56, "headers_offset: " + why, (56, "Q", value))
    bad("b11_headers_beyond", "B11", 56, "more headers than the index holds", (16, "Q", 2**40))
    bad("b11_headers_wrap", "B11", 56, "headers beyond 2^48", (16, "Q", 2**60))
    b = one(to, 32, units, frame(0, 3))
    bad("b11_packed_first", "B11", 24, "the packed buffer lies ahead of the plain one", (24, "Q", b.data_at), b=b)
    b = one(to, 32, units, frame(0, 3))
    bad("b11_packed_beyond", "B11", 24, "payloads beyond the data", (32, "Q", 2**40), b=b)
    b = one(to, 32, units, frame(0, 3))
    bad("b11_packed_wraps", "B11", 24, "offset 2^64 - 64", (24, "Q", 2**64 - 64), b=b)
    invalid_second_walk(to, bad)
    b = in_index(to)
    at = u64(b, record(b, "s", "offsets") + 24)
    bad("b11_packed_offsets", "B11", 24, "packed offsets where their headers are", (24, "Q", at - 64), b=b, path="s", role="offsets")
    b = in_index(to)
    bad("b11_headers_of_offsets", "B11", 56, "headers where the payloads are", (56, "Q", at), b=b, path="s", role="offsets")
    text = lambda **options: to.Batch(3, [to.infer("s", ["a", "bcd", "longer than the record"]).store("stored", "data", "offsets")], **options)  # noqa: E731
    for name, b, room in (("more", text(), 1), ("less", text(room=2), 1), ("huge", text(), 2**32 - 1)):
        to.invalid("b11_room_" + name, b, "B11", record(b, "s", "offsets") + 24, "checksum_room", (120, "I", room))
    b = one(to, 32, units, frame(0, 3))
    to.invalid("b11_room_headers", b, "B11", record(b, "u", "data") + 56, "checksum_room", (120, "I", 1))
    for name, b, room in (("more", to.simple(), 1), ("less", to.Batch(2, [to.ndarray("a", [1, 2], "int64").store()], room=1), 0), ("huge", to.simple(), 2**32 - 1)):
        to.invalid("b12_room_" + name, b, "B12", 40, "checksum_room", (120, "I", room))
    b = text(room=2)
    to.invalid("i2_room", b, "I2", b.head_length + 64 + 100, "a byte of the checksum_room", (b.head_length + 64 + 100, "B", 1))
    b = one(to, 32, units, frame(0, 3))
    to.invalid("i2_after_headers", b, "I2", header(b) + 16, "a byte after the block headers", (header(b) + 16, "B", 1))


def invalid_second_walk(to, bad):
    """B11 of the data whose packing is not 0, in the turn of their records: they begin where the plain data of all records would end."""
    units = noise(91, 40, 3)
    unknown = lambda: unpack_not(run(to, "u", "int32", units), 2, b"payload")  # noqa: E731
    packed = lambda: force(to, run(to, "u", "int32", units), "data", frame(0, 3))  # noqa: E731
    after = lambda name="after", count=40: run(to, name, "int16", units[:count]).store("stored")  # noqa: E731
    b = to.Batch(1, [unknown(), after()])
    bad("b11_unknown_packing_first", "B11", 24, "an unknown packing ahead of what is plain", (24, "Q", b.data_at), b=b)
    for name, value, why in (("zero", 0, "0"), ("later", b.head_length + 128, "a hole"), ("huge", 2**64 - 16, "2^64 - 16")):
        bad("b11_unknown_packing_headers_" + name, "B11", 56, "headers_offset of an unknown packing: " + why, (56, "Q", value), b=to.Batch(1, [unknown(), after()]))
    bad("b11_unknown_packing_more_headers", "B11", 56, "more headers than the index holds", (16, "Q", 2**40), b=to.Batch(1, [unknown(), after()]))
    for name, col in (("packed", packed), ("unknown", unknown)):
        b = to.Batch(1, [col(), after()])
        length = record(b, "after", "data") + 32
        to.invalid("b11_%s_ahead_of_a_longer_one" % name, b, "B11", record(b, "u", "data") + 24, "the plain data of a later record end elsewhere", (length, "Q", 144))
        b = to.Batch(1, [col(), after()])
        to.invalid("b11_%s_ahead_of_a_bad_one" % name, b, "B11", record(b, "u", "data") + 24, "a place, and a later record with B10", (record(b, "u", "data") + 24, "Q", b.data_at), (record(b, "after", "data") + 32, "Q", 81))
    b = to.Batch(1, [packed(), after("a"), after("b")])
    to.invalid("b11_packed_plain_wraps", b, "B11", record(b, "u", "data") + 24, "plain data of 2^64 bytes more", (record(b, "a", "data") + 32, "Q", 2**63 + 128), (record(b, "b", "data") + 32, "Q", 2**63 + 128))
    b = to.Batch(1, [packed(), after("a", 0)])
    to.invalid("b11_packed_plain_rounds", b, "B11", record(b, "u", "data") + 24, "plain data of 2^64 - 1 bytes", (record(b, "a", "data") + 32, "Q", 2**64 - 1))


def invalid_elements(to):
    """Elements that break a rule, in packed buffers: at is the header of their block."""
    def bad(name, rule, b, path, role, block, why):
        to.invalid("packed_" + name, b, rule, header(b, path, role, block), why)

    def batch(col, role, rows, choose=any_frame):
        b = next(b for b in col.bufs if b.role == to.ROLES[role])
        t = blocks.width_of(b.dtype)
        return to.Batch(rows, [force(to, col, role, *(choose(units, t, b) for units in blocks.blocks_of(b.raw, t)))])

    def again(col, role, raw):
        next(b for b in col.bufs if b.role == to.ROLES[role]).raw = raw
        return col

    text = lambda: to.blob("s", ["ab"] * 3, 8)  # noqa: E731
    bad("i7", "I7", batch(again(text(), "offsets", raw_of([0, 4, 2, 6], 64)), "offsets", 3), "s", "offsets", 0, "offsets that descend")
    rows = 2 * B[64] + 5
    offsets = [0] * (rows + 1)
    offsets[B[64] + 1] = 1
    many = to.blob("s", [""] * rows, 8)
    bad("i7_second_block", "I7", batch(again(many, "offsets", raw_of(offsets, 64)), "offsets", rows), "s", "offsets", 1, "an offset beyond the data, in the second block")
    masked = lambda: to.infer("n", [1, to.N, 2, to.M])  # noqa: E731
    bad("i3", "I3", batch(again(masked(), "validity", b"\x15"), "validity", 4), "n", "validity", 0, "bits after the last row")
    lengths = to.infer("l", [[to.N], [], to.N])
    bad("i8", "I8", batch(again(lengths, "lengths", raw_of([1, 0, 1], 64)), "lengths", 3), "l", "lengths", 0, "the length of an absent list")
    bad("i12", "I12", batch(again(to.infer("n", [1, True]), "types", b"\0\7"), "types", 2), "n", "types", 0, "number type 7")
    shared = to.repeat(text(), 0, 1, 2, 0)
    bad("i13", "I13", batch(again(shared, "row_index", raw_of([0, 1, 3, 0], 64)), "row_index", 4), "s", "row_index", 0, "row_index 3 of 3 stored rows")
    bad("d3", "D3", batch(again(to.ndarray("b", [True, False], "bool"), "data", b"\1\2"), "data", 2), "b", "data", 0, "a bool of 2")
    bad("d4", "D4", batch(again(to.ndarray("n", [1, to.N], "int32"), "data", raw_of([1, 7], 32)), "data", 2), "n", "data", 0, "an absent cell that is not zero")
    bad("d5", "D5", batch(again(to.infer("n", [1, True, 0]), "data", raw_of([1, 7, 0], 64)), "data", 3), "n", "data", 0, "a bool of 7")
    b = to.Batch(3, [force(to, again(text(), "offsets", raw_of([0, 4, 2, 6], 64)), "offsets", frame(0, 3)), again(to.blob("t", ["cd"] * 3, 8), "offsets", raw_of([0, 4, 2, 6], 64)).store("alias", "offsets")])
    to.invalid("packed_i7_of_two", b, "I7", header(b, "s", "offsets"), "offsets that descend, and their alias")


def invalid_packings(to):
    for build in (invalid_headers, invalid_places, invalid_payloads, invalid_records, invalid_elements):
        build(to)
