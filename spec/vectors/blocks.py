"""How a buffer becomes blocks: packbuf.md, sections 19 (the packed profiles) and 20, from that page alone.

    pack(raw, dtype, profile)   what profile 1, 2 or 3 makes of a stored buffer that may be packed: (block headers, payloads), or None where it stays plain
    lay(raw, dtype, choices)    the same of any choice for each block, a valid one or not: plain(), lines(), frame(), zero(), split(), dictionary()

A unit is an int. May use: nothing of build.py. Must not know: reader.py.
"""
import struct

PLAIN, LINE, FRAME, ZERO, SPLIT, DICTIONARY = range(6)
FILLED = 128
INT, UINT, FLOAT, BFLOAT, BOOL, E4M3, E5M2 = 0, 1, 2, 4, 6, 10, 12
FLOATS = FLOAT, BFLOAT, E4M3, E5M2
BLOCK, ROW = 8192, 128  # bytes of units
STRIPE = 64             # blocks
LINES = 24              # of a cover, at most
TOPS = 32               # of one dictionary, at most
MANTISSA = {(FLOAT, 32): 23, (FLOAT, 16): 10, (BFLOAT, 16): 7}


def width_of(dtype):
    """T. The units of a bitmap are its bytes."""
    return 8 if dtype[1] == 1 else dtype[1]


def allowed(dtype):
    return dtype[0] in (INT, UINT, BOOL, *FLOATS) and width_of(dtype) in (8, 16, 32, 64) and dtype[2] == 1


def units_of(raw, t):
    return [int.from_bytes(raw[i:i + t // 8], "little") for i in range(0, len(raw), t // 8)]


def blocks_of(raw, t):
    return [units_of(raw[i:i + BLOCK], t) for i in range(0, len(raw), BLOCK)]


def up(n):
    return -(-n // 64) * 64


def ceil(a, b):
    return -(-a // b)


def code_bytes(rows, width, t):
    return ROW * ceil(rows * width, t)


# ---- any choice --------------------------------------------------------------------------------------------------------------------------


class Choice:
    """What the header of a block says, and what its payload needs beyond that: lines (first, value, step), tops, the fill."""
    def __init__(self, mode, base=0, width=0, shift=0, extra=0, size=None, lines=(), tops=(), fill=None):
        self.mode, self.base, self.width, self.shift, self.extra, self.size = mode, base, width, shift, extra, size
        self.lines, self.tops, self.fill = lines, tops, fill

    def filled(self, fill):
        """The same for the dense rows: those that have another unit than the fill."""
        return Choice(self.mode, self.base, self.width, self.shift, self.extra, None, self.lines, self.tops, fill)


def plain():
    return Choice(PLAIN)


def lines(t, *pieces):
    """Lines with a payload, (first, value, step), in as few bytes as hold them."""
    values, steps = [value for _, value, _ in pieces], [signed(step % (1 << t), t) for _, _, step in pieces]
    base, width = min(values), 0
    v = next(n for n in (0, 1, 2, 4, 8) if (max(values) - base) >> 8 * n == 0)
    if len(set(steps)) == 1 and -128 <= steps[0] <= 127:
        s, width = 0, steps[0] & 255
    else:
        s = next(n for n in (1, 2, 4, 8) if all(-1 << 8 * n - 1 <= step < 1 << 8 * n - 1 for step in steps))
    return lines_of(base, width, v, s, *pieces)


def lines_of(base, width, v, s, *pieces):
    """Lines with values of v bytes and steps of s."""
    return Choice(LINE, base, width, v + 16 * s, len(pieces), up(len(pieces) * (2 + v + s)), pieces)


def line(value, step=0):
    """One line without payload."""
    return Choice(LINE, value, step & 255)


def frame(base, width, shift=0):
    return Choice(FRAME, base, width, shift)


def zero(base, width):
    return Choice(ZERO, base, width)


def split(width):
    return Choice(SPLIT, 0, width)


def dictionary(shift, *tops):
    extra = len(tops) - 1
    return Choice(DICTIONARY, 0, max(shift + extra.bit_length(), 1), shift, extra, tops=tops)


def lay(raw, dtype, choices):
    """The block headers and the payloads of these choices, one for each block."""
    t = width_of(dtype)
    headers, payloads = b"", bytearray()
    blocks = blocks_of(raw, t)
    assert len(blocks) == len(choices)
    for units, choice in zip(blocks, choices):
        headers += header(choice, len(payloads) // 64)
        payloads += payload(units, t, choice)
    return headers, bytes(payloads)


def header(choice, place):
    mode = choice.mode + (FILLED if choice.fill is not None else 0)
    return struct.pack("<QIBBBB", choice.base, place, mode, choice.width, choice.shift, choice.extra)


def payload(units, t, choice):
    lanes, size = 1024 // t, t // 8
    ahead = b""
    if choice.fill is not None:
        rows = rows_of(units, lanes)
        dense = [any(u != choice.fill for u in row) for row in rows]
        mask = sum(1 << r for r, is_dense in enumerate(dense) if is_dense)
        ahead = (mask.to_bytes(8, "little") + choice.fill.to_bytes(size, "little")).ljust(64, b"\0")
        units = [u for row, is_dense in zip(rows, dense) if is_dense for u in row]
    body = payload_of_rows(units, t, choice)
    if choice.mode == PLAIN and ahead:  # whole rows
        body = body.ljust(ceil(len(units), lanes) * ROW, b"\0")
    return ahead + body.ljust(up(len(body)), b"\0")


def payload_of_rows(units, t, choice):
    size = t // 8
    if choice.mode == PLAIN:
        return b"".join(u.to_bytes(size, "little") for u in units)
    if choice.mode == LINE:
        columns = [(first, 2) for first, _, _ in choice.lines], [(value - choice.base, choice.shift & 15) for _, value, _ in choice.lines], [(step, choice.shift >> 4) for _, _, step in choice.lines]
        return b"".join((number % (1 << 8 * n)).to_bytes(n, "little") for column in columns for number, n in column)
    if choice.mode == FRAME:
        return lay_codes([(u - choice.base) % (1 << t) >> choice.shift for u in units], choice.width, t)
    if choice.mode == ZERO:
        return lay_codes([zeros(t).index(u) if u in zeros(t) else (u - choice.base + 2) % (1 << t) for u in units], choice.width, t)
    if choice.mode == SPLIT:
        tops = [u >> choice.width for u in units]
        rows = ceil(len(units), 1024 // t)
        bitmap = sum(1 << i for i, top in enumerate(tops) if top).to_bytes(rows * ROW // size // 8, "little")
        return lay_codes([u & (1 << choice.width) - 1 for u in units], choice.width, t) + bitmap.ljust(up(len(bitmap)), b"\0") + bytes(top for top in tops if top)
    place = {top: i for i, top in reversed(list(enumerate(choice.tops)))}
    table = b"".join(top.to_bytes(2, "little") for top in choice.tops).ljust(64, b"\0")
    return table + lay_codes([place[u >> choice.shift] << choice.shift | u & (1 << choice.shift) - 1 for u in units], choice.width, t)


def zeros(t):
    """Both zeros of floats."""
    return 0, 1 << t - 1


def lay_codes(codes, width, t):
    """The codes of whole rows; what the last one lacks is 0."""
    lanes = 1024 // t
    rows = ceil(len(codes), lanes)
    out = bytearray(code_bytes(rows, width, t))
    for lane in range(lanes):
        word = 0
        for r, code in enumerate(codes[lane::lanes]):
            assert code < 1 << width
            word |= code << r * width
        run = word.to_bytes(ceil(rows * width, t) * t // 8, "little")
        for j in range(len(run) * 8 // t):
            out[ROW * j + lane * t // 8:ROW * j + (lane + 1) * t // 8] = run[j * t // 8:(j + 1) * t // 8]
    return bytes(out)


def rows_of(units, lanes):
    return [units[i:i + lanes] for i in range(0, len(units), lanes)]


# ---- the packed profiles -----------------------------------------------------------------------------------------------------------------


class Recipe:
    """Which modes the blocks of a buffer may have beside line of equal units, frame, zero and plain. split: its width, or None."""
    def __init__(self, lines=False, fill=False, split=None, dictionary=False):
        self.lines, self.fill, self.split, self.dictionary = lines, fill, split, dictionary


def cover(units, t):
    """The lines that cover the units, (first, value, step); None when these are more than 24."""
    out, p, top = [], 0, 1 << t
    while p < len(units):
        if len(out) == LINES:
            return None
        step = 0
        if p + 1 < len(units):
            step = (units[p + 1] - units[p]) % top
            if p + 2 < len(units) and (units[p + 2] - units[p + 1]) % top != step:
                step = 0
        end = p + 1
        while end < len(units) and units[end] == (units[end - 1] + step) % top:
            end += 1
        out.append((p, units[p], step))
        p = end
    return out


def signed(value, t):
    return value - (1 << t) if value >> (t - 1) else value


def choose_line(units, t, recipe):
    if all(u == units[0] for u in units):
        return Choice(LINE, units[0], size=0)
    pieces = cover(units, t) if recipe.lines else None
    if pieces is None:
        return None
    if len(pieces) == 1 and -128 <= signed(pieces[0][2], t) <= 127:
        return Choice(LINE, units[0], pieces[0][2] & 255, size=0)
    return lines(t, *pieces)


def choose_split(units, width):
    """Split of this width, or None where a unit is too large or too few bytes are 0."""
    bytes_ = sum(1 for u in units if u >> width)
    if any(u >> (width + 8) for u in units) or not bytes_ or 8 * bytes_ > 7 * len(units):
        return None
    return Choice(SPLIT, 0, width, size=bytes_)


def choose_rows(units, dtype, recipe, filled):
    """Split, or the least of frame, zero, dictionary and plain; the units are those of whole rows but for the last."""
    t = width_of(dtype)
    rows = ceil(len(units), 1024 // t)
    choice = choose_split(units, recipe.split) if recipe.split else None
    if choice:
        choice.size = code_bytes(rows, recipe.split, t) + up(rows * 1024 // t // 8) + up(choice.size)
        if choice.size <= (rows * 128 if filled else up(len(units) * t // 8)):
            return choice
    out = []
    if all(u == units[0] for u in units):
        out.append(Choice(FRAME, units[0], 1, size=code_bytes(rows, 1, t)))
    else:
        base = min(units, key=lambda u: signed(u, t)) if dtype[0] == INT else min(units)
        differ = 0
        for u in units:
            differ |= u ^ units[0]
        shift = (differ & -differ).bit_length() - 1
        width = (max((u - base) % (1 << t) for u in units) >> shift).bit_length()
        if width < t:
            out.append(Choice(FRAME, base, width, shift, size=code_bytes(rows, width, t)))
    others = [u for u in units if u not in zeros(t)]
    if dtype[0] in FLOATS and 0 < len(others) < len(units):
        base = min(others)
        width = (max(units) - base + 2).bit_length()
        if width < t:
            out.append(Choice(ZERO, base, width, size=code_bytes(rows, width, t)))
    if recipe.dictionary:
        shift = MANTISSA[dtype[:2]]
        tops = sorted({u >> shift for u in units})
        if len(tops) <= TOPS:
            choice = dictionary(shift, *tops)
            choice.size = 64 + code_bytes(rows, choice.width, t)
            out.append(choice)
    out.append(Choice(PLAIN, size=rows * ROW if filled else up(len(units) * t // 8)))
    return min(out, key=lambda choice: choice.size)  # the first of equal ones


def choose_filled(units, dtype, recipe):
    rows = rows_of(units, 1024 // width_of(dtype))
    fill = next((row[0] for row in rows if all(u == row[0] for u in row)), None) if recipe.fill else None
    dense = [row for row in rows if any(u != fill for u in row)]
    if fill is None or not dense or len(rows) - len(dense) < ceil(len(rows), 16):
        return None
    inner = choose_rows([u for row in dense for u in row], dtype, recipe, True)
    choice = inner.filled(fill)
    choice.size = 64 + inner.size
    return choice


def choose(units, dtype, recipe):
    covered = choose_line(units, width_of(dtype), recipe)
    rows = choose_filled(units, dtype, recipe) or choose_rows(units, dtype, recipe, False)
    return covered if covered and covered.size <= rows.size else rows


def guess(units, dtype, recipe, before):
    """The choice for a block that is not looked at in full, or None."""
    t = width_of(dtype)
    if recipe.split:
        return choose_split(units, recipe.split)
    if before.mode != FRAME or before.fill is not None or before.shift:
        return None
    codes = [(u - before.base) % (1 << t) for u in units]
    every = 0
    for code in codes:
        every |= code
    if max(codes) >> before.width or every.bit_length() <= before.width - 2:
        return None
    return Choice(FRAME, before.base, before.width)


def sample(count):
    """The blocks of the sample."""
    some = min(count, max(4, min(16, -(-count // 8))))
    return [i * (count - 1) // max(1, some - 1) for i in range(some)]


def sampled(blocks, dtype, profile):
    """The recipe, the bytes that the sample packs to with its headers, and those that it has."""
    t = width_of(dtype)
    here = [blocks[i] for i in sample(len(blocks))]
    chosen = [choose(units, dtype, Recipe(True, True)) for units in here]
    size = sum(choice.size for choice in chosen)
    recipe = Recipe(8 * sum(choice.mode == LINE for choice in chosen) >= len(here) or profile == 3, 8 * sum(choice.fill is not None for choice in chosen) >= len(here) or profile == 3)
    if profile != 2 and dtype[0] in (INT, UINT) and t >= 32:
        width = max(map(max, here)).bit_length()
        if width >= 9:
            again = sum(choose(units, dtype, Recipe(True, True, width - 8)).size for units in here)
            if 16 * again <= 15 * size:
                recipe.split, size = width - 8, again
    if profile == 3 and dtype[:2] in MANTISSA:
        again = sum(choose(units, dtype, Recipe(True, True, None, True)).size for units in here)
        if 16 * again <= 15 * size:
            recipe.dictionary, size = True, again
    unpacked = sum(len(units) * t // 8 for units in here)
    return recipe, size + 16 * len(here), unpacked


def recipe_of(blocks, dtype, profile):
    """The recipe, or None where packing does not pay."""
    recipe, size, unpacked = sampled(blocks, dtype, profile)
    return recipe if 16 * size <= 15 * unpacked else None


def small(raw, dtype, profile):
    """Whether data pack so small that no row of them is shared."""
    _, size, unpacked = sampled(blocks_of(raw, width_of(dtype)), dtype, profile)
    return 32 * size <= unpacked


def choices_of(raw, dtype, profile):
    """The choice of each block, or None where the buffer stays plain."""
    t = width_of(dtype)
    blocks = blocks_of(raw, t)
    recipe = recipe_of(blocks, dtype, profile)
    if recipe is None:
        return None
    out = []
    for k, units in enumerate(blocks):
        choice = None
        if profile != 3 and k % STRIPE and len(units) == BLOCK // (t // 8) and not recipe.lines and not recipe.fill:
            choice = guess(units, dtype, recipe, out[-1])
        out.append(choice or choose(units, dtype, recipe))
    return out


def pack(raw, dtype, profile):
    choices = choices_of(raw, dtype, profile)
    return lay(raw, dtype, choices) if choices else None
