"""The vectors of packing in blocks (packbuf.md, sections 19 and 20): what build.py lists, and what blocks.py packs.

Valid ones of any choice: one batch for each T with every mode, buffers of several blocks, every role of the index, aliases, unknown packings; canonical
ones of profiles 1 to 3; and an invalid one for each thing that B5, B11, B14, I15, I16, I17 and D10 forbid.
"""
import copy
import struct

import blocks
from blocks import dictionary, frame, line, lines, plain, split, zero
from sharing import splitmix64

UNITS = {8: ("uint8", "int8", "float8_e5m2"), 16: ("uint16", "bfloat16", "int16", "float16"), 32: ("int32", "float32", "uint32"), 64: ("uint64", "int64", "float64")}
B = {t: 65536 // t for t in UNITS}   # units of a block
L = {t: 1024 // t for t in UNITS}    # units of a row


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
    b = next(b for b in col.bufs if (b.role, b.dim) == (to.ROLES[role], dim))
    b.storage, b.packing, b.packed = "stored", 1, blocks.lay(b.raw, b.dtype, choices)
    return col


def force_all(to, col, choose):
    """Packs every buffer of the subtree that may be packed; choose: of the units of a block, T and the buffer."""
    col = copy.copy(col)
    col.bufs = [copy.copy(b) for b in col.bufs]
    for b in col.bufs:
        if b.count and blocks.allowed(b.dtype):
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
    base = min((u for u in units if u), default=1)
    return zero(base, max((max(units) - base + 1).bit_length(), 1) if any(units) else 1)


def any_line(units, t, b):
    pieces = blocks.cover(units, t)
    return lines(*pieces) if pieces else any_frame(units, t, b)


def least(units, t, b):
    return blocks.choose(units, b.dtype, blocks.Recipe(True, True))


# ---- valid: each mode ---------------------------------------------------------------------------------------------------------------------


def in_rows(t, *parts):
    """Units of whole rows: of each part a number repeated, or a list of one row."""
    return [u for part in parts for u in (part if isinstance(part, list) else [part] * L[t])]


def cases(t):
    """name, units, choice: of one short block each."""
    top, row, n = 1 << t, L[t], 2 * L[t] + L[t] // 2 + 3
    some = noise(t, n, t)
    yield "plain", some, plain()
    yield "plain_1", some[:1], plain()
    yield "constant", [5] * n, line(5)
    yield "line", [(top - 3 + 127 * i) % top for i in range(n)], line(top - 3, 127)
    yield "line_down", [(7 - 128 * i) % top for i in range(n)], line(7, -128)
    yield "line_of_1", [(9 + (top // 2 + 1) * i) % top for i in range(n)], lines((0, 9, top // 2 + 1))
    pieces = [(i * (i + 3), 11 * i % top, (i - 6) % top) for i in range(12)]
    pieces = [piece for piece in pieces if piece[0] < n]
    ends = [piece[0] for piece in pieces[1:]] + [n]
    yield "lines", [(value + i * step) % top for (first, value, step), end in zip(pieces, ends) for i in range(end - first)], lines(*pieces)
    for width in sorted({1, 3, t // 2 + 1, t - 1, t}):
        base = some[0] if width < t - 1 else top - 2  # beyond the end they begin again at 0
        yield "frame_%d" % width, [(base + x) % top for x in noise(width, n, width)], frame(base, width)
        yield "zero_%d" % width, [(base + x - 1) % top if x else 0 for x in (noise(width, n - 2, width) + [0, (1 << width) - 1]) if not x or (base + x - 1) % top], zero(base, width)
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
             "zero": ([100 + x - 1 if x else 0 for x in noise(12, L[t], 4)], zero(100, 4))}
    if t > 8:
        parts["split"] = [(x << 2) + 1 for x in noise(13, L[t], 3)] + [], split(1 if t == 16 else 3)
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
    for t, dtype, tail in ((8, "int8", 1), (16, "bfloat16", 65), (32, "float32", 33), (64, "int64", 200)):
        low, row = noise(20 + t, B[t], 3), L[t]
        units = [4] * B[t] + [9] * (B[t] - row) + low[:row] + low[:tail]
        choices = [line(4), frame(0, 3).filled(9), plain()]
        to.valid("blocks_several_%d" % t, to.Batch(1, [force(to, run(to, "r", dtype, units), "data", *choices)]))
    units = noise(30, B[16], 16)
    to.valid("blocks_full_plain", to.Batch(1, [force(to, run(to, "r", "uint16", units + [1]), "data", plain(), line(1))]))
    to.valid("blocks_no_payload", to.Batch(1, [force(to, run(to, "r", "uint64", [3] * B[64] + list(range(B[64])) + [8]), "data", line(3), line(0, 1), line(8)),
                                               force(to, run(to, "s", "int8", [1]), "data", line(1, 100))]))
    low = noise(33, B[32], 3)
    to.valid("blocks_full_last", to.Batch(1, [force(to, run(to, "r", "float32", low), "data", zero(1, 3))]))
    units = [i & 1 for i in range(B[64])]
    full = [(x & 7) + (9 << 3 if i % 2 else 0) for i, x in enumerate(noise(31, B[64], 3))]
    to.valid("blocks_full_split", to.Batch(1, [force(to, run(to, "r", "int64", full + units[:70]), "data", split(3), split(1))]))


def valid_roles(to):
    """Every buffer of every codec in blocks, also those that no profile packs."""
    for name, choose in (("plain", lambda units, t, b: plain()), ("frame", any_frame), ("zero", any_zero), ("lines", any_line), ("least", least)):
        cols, vals = to.rich_columns(), [to.infer("v", [{"x": 1}]), to.infer("w", ["text"])]
        to.valid("blocks_rich_" + name, to.Batch(5, [force_all(to, col, choose) for col in cols], [force_all(to, col, choose) for col in vals]))
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
    for name, packing, raw in (("2", 2, b"x" * 100), ("255", 255, b""), ("2_before", 2, b"y")):
        unknown = to.unreadable(run(to, "u", "int32", units), "PACKING")
        unknown.bufs[0].storage, unknown.bufs[0].packing, unknown.bufs[0].raw = "stored", packing, raw
        cols = [unknown, packed(), plain_one] if name == "2_before" else [packed(), plain_one, unknown]
        b = to.Batch(1, cols)
        b.poke(b.buffer("u", 40, "data"), "QQ", 2**64 - 1, 7)
        b.seal()
        to.valid("unknown_packing_with_parameters_" + name, b)


def valid_not_looked_at(to):
    """What no profile writes, and a reader takes."""
    def batch(dtype, units, choice):
        return to.Batch(1, [force(to, run(to, "u", dtype, units), "data", choice)])

    b = batch("uint32", [1] * 40, frame(0, 20))  # units 40 to 63 are lacking, and 24 bits of the last words
    b.poke(b.element("u", "data", 128 - 4), "I", 0xFFFFF << 0 & 0xFFFFFFFF | 0xFFF << 20 & 0)
    at = b.element("u", "data", 128 + 8 * 4)
    for i in range(24):
        b.poke(at + 4 * i, "I", struct.unpack_from("<I", b.bytes, at + 4 * i)[0] | 0xFFFFFF00)
    for i in range(32):
        place = b.element("u", "data", 128 + 4 * i)
        b.poke(place, "I", struct.unpack_from("<I", b.bytes, place)[0] | 0xFF000000)
    place = b.element("u", "data", 124)
    b.poke(place, "I", 1)
    b.seal()
    to.valid("blocks_spare_bits", b)
    tops = [3, 5, 6]
    units = [(tops[i % 3] << 23) + i for i in range(64)]
    b = batch("float32", [units[0], (3 << 23) + 1, *units[2:]], dictionary(23, *tops))
    b.poke(b.element("u", "data", 64 + 4), "I", struct.unpack_from("<I", b.bytes, b.element("u", "data", 64 + 4))[0] | 3 << 23)
    b.seal()
    to.valid("blocks_code_beyond_tops", b)
    units = noise(50, 64, 4)
    choice = split(4)
    b = batch("int32", [u + (1 << 4) if i == 9 else u for i, u in enumerate(units)], choice)
    place = b.element("u", "data", blocks.code_bytes(2, 4, 32))
    b.poke(place, "Q", 1 << 9 | 1 << 20)  # the byte of unit 20 is 0
    b.seal()
    to.valid("blocks_split_zero_byte", b)
    to.valid("blocks_zero_codes_wrap", batch("uint8", [0, 255, 0, 1, 2, 254], zero(254, 3)))


# ---- valid: canonical --------------------------------------------------------------------------------------------------------------------

NAMES = {1: "balanced", 2: "fastest", 3: "smallest"}


def canonical(to, name, fields, profiles=(1, 2, 3), rows=None, **options):
    """The content as profiles write it."""
    for profile in profiles:
        cols = [to.share(to.infer(n, cells)) for n, cells in fields.items()]
        b = to.Batch(rows or len(next(iter(fields.values()))), cols, profile=profile, **options)
        to.valid("%s_%s" % (NAMES[profile], name), b, canonical=True)


def tensor(to, dtype, units):
    return [to.Tensor(3, dtype, (len(units),), raw_of(units, to.DTYPES[dtype][1]))]


def floats(values):
    return struct.unpack("<%dI" % len(values), struct.pack("<%df" % len(values), *values))


def contents(to):
    """Runs of a few KiB: name -> (dtype, units)."""
    n = 330
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
    yield "lines_of_13", "int32", [i % 50 * (1 + i // 50) for i in range(650)]
    yield "noise", "uint32", noise(111, n, 32)
    yield "noise8", "uint8", noise(112, n, 8)
    yield "rare", "float32", [0] * 300 + [0x3F800000, 0x40000000, 0x3F800001] + [0] * 200
    yield "float8", "float8_e4m3fn", [x + 40 if x else 0 for x in noise(113, n, 4)]
    yield "zero_as_wide", "float32", [7] * 96 + [0] + noise(114, 31, 32) + [7] * 100
    yield "complex", "complex64", [x % 4 for x in noise(115, 60, 16)]
    yield "bytes_255", "uint8", noise(116, 255, 1)
    yield "bytes_256", "uint8", noise(117, 256, 1)


def valid_canonical(to):
    canonical(to, "runs", {name: tensor(to, dtype, units) for name, dtype, units in contents(to)})
    lengths = [x % 6 for x in noise(120, 90, 8)]
    text = ["word " * n for n in lengths]
    canonical(to, "rows", {"text": text, "again": [s.upper() for s in text], "tokens": [to.tensor("int64", noise(i, n, 7)) for i, n in enumerate(lengths)],
                           "lists": [[[i]] * n for i, n in enumerate(lengths)], "grid": [to.tensor("uint8", noise(i, 2 * n, 2), (n, 2)) for i, n in enumerate(lengths)],
                           "score": [x / 8 if x else to.N for x in noise(121, 90, 4)], "copy": [x / 8 if x else to.N for x in noise(121, 90, 4)],
                           "step": [x for x in noise(122, 90, 5)], "json": [{"k": i, "v": [n]} if n else [n] for i, n in enumerate(lengths)]})
    half = noise(123, 2300, 1)
    canonical(to, "masks", {"v": [to.N if x else 7 for x in half], "m": [to.M if i // 300 % 2 else 7 for i in range(2300)], "b": [bool(x) for x in half]}, (1,))
    rows = ["the same prompt of group %d, again and again, for each response" % (i // 8) for i in range(80)]
    canonical(to, "shared", {"prompt": [to.tensor("int32", noise(i // 8, 16, 10)) for i in range(80)], "text": rows}, (1,))
    canonical(to, "alignment_8", {"a": tensor(to, "int64", noise(124, 600, 5)), "b": tensor(to, "int16", noise(125, 600, 16))}, (2,), exponent=8)
    canonical(to, "no_checksums", {"a": tensor(to, "int64", noise(126, 600, 5))}, (1,), checksums=False)
    blocks_of = lambda *parts: [u for part in parts for u in part]  # noqa: E731
    # the second and third block are tried as the first was chosen
    guessed = blocks_of(noise(130, B[64], 3), [x % 6 + 1 for x in noise(131, B[64], 8)], noise(132, B[64], 1), [x % 6 + 1 for x in noise(133, B[64], 8)], noise(134, 70, 2))
    canonical(to, "guesses", {"a": guessed, "z": [0] * 1024 + guessed[:3142]}, (1, 2, 3))
    rare = [x % 8 if x >> 8 else 1000 + x for x in noise(135, B[64], 12)]
    small, many = noise(136, B[64], 3), [x % 8 + 1000 * (x % 16 != 9) for x in noise(137, B[64], 12)]
    canonical(to, "guesses_of_split", {"a": blocks_of(rare, [7] + small[1:], small[:-1] + [999], many, rare, small[:50])}, (1, 2))
    # of 20 blocks the sample does not see the 7th, whose units are wider
    hidden = blocks_of(*([9 if i == 6 and k == 3 else x for k, x in enumerate(noise(140 + i, B[64], 2))] for i in range(20)))
    canonical(to, "sampled", {"a": hidden}, (2,))
    filled = [x if i // 64 % 8 == 0 else 0 for i, x in enumerate(noise(145, 2 * B[64] + 300, 4))]
    canonical(to, "filled", {"a": filled, "b": [i // 100 % 7 for i in range(len(filled))]}, (1, 3))


def valid_stripes(to):
    """Block 64 begins a stripe: it is chosen, though it could be tried as block 63 was chosen."""
    size, count = B[64], 66
    units = [1 + x % 6 if i // size in (3, 64, 65) else x % 8 for i, x in enumerate(noise(150, count * size + 9, 16))]
    canonical(to, "stripes", {"a": units}, (2,))
    rows, size, last = 130 * 1024 + 17, B[64], [0] * 2
    units = [300 + x % 200 if x % 64 == 9 else x >> 8 & 1 for x in noise(151, rows, 16)]
    for block in (5, 64, 128):
        units[block * size:(block + 1) * size] = [x & 1 for x in units[block * size:(block + 1) * size - 1]] + [2]
    canonical(to, "stripes", {"a": units}, (1,))


def valid_packings(to):
    for build in (valid_modes, valid_several_blocks, valid_roles, valid_layouts, valid_not_looked_at, valid_canonical, valid_stripes):
        build(to)


def invalid_packings(to):
    pass
