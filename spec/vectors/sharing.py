"""Which rows and prefixes of a leaf a profile 0 encoder shares: packbuf.md, section 19, "Sharing", from that page alone.

    decide(cells, codec, ...)   what a leaf's cells become: a Decision

A cell is None where it is absent, else (its bytes of data, what else must be equal for two cells to be: shape, types, forms, items).
"""

LOOK_AT_ALL = 1024   # rows up to which there is no sample
LOOK_AT_MOST = 1 << 24  # rows beyond which nothing is shared
ENOUGH = 4096        # bytes that sharing must save
RANGE = 1 << 64


class Decision:
    """stored: the rows that are kept; row_index: of each row, or None; prefix_row, prefix_length: of each stored row, or None."""
    def __init__(self, rows):
        self.stored, self.row_index, self.prefix_row, self.prefix_length = list(range(rows)), None, None, None


def splitmix64(count, seed=0):
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % RANGE
        x = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 % RANGE
        x = (x ^ x >> 27) * 0x94D049BB133111EB % RANGE
        yield x ^ x >> 31


assert next(splitmix64(1)) == 0xE220A8397B1DCDAF


def pairs(rows):
    """How many places a sample looks at."""
    return 64 + rows // 128


def walk(rows):
    """The rows that the sample for repeats looks at, in turn."""
    for x in splitmix64(pairs(rows)):
        first = x * rows // RANGE
        yield first
        if first + 1 < rows:
            yield first + 1


def places(stored):
    """The stored rows that the sample for prefixes compares with the one before."""
    return [1 + x * (stored - 1) // RANGE for x in splitmix64(pairs(stored))]


def sample_repeats(cells):
    first, repeats = {}, 0
    for row in walk(len(cells)):
        if cells[row] is not None:
            repeats += first.setdefault(cells[row], row) != row
    return repeats


def common(a, b, element):
    """How many leading elements two rows have in common."""
    n = 0
    while (n + 1) * element <= min(len(a), len(b)) and a[n * element:(n + 1) * element] == b[n * element:(n + 1) * element]:
        n += 1
    return n


def share_rows(decision, cells):
    rows = len(cells)
    if rows > LOOK_AT_MOST or (rows > LOOK_AT_ALL and sample_repeats(cells) < 4):
        return
    first, index = {}, []
    for cell in cells:
        index.append(0 if cell is None else first.setdefault(cell, len(first)))
    all_bytes = sum(len(cell[0]) for cell in cells if cell is not None)
    saved = all_bytes - sum(len(cell[0]) for cell in first) - 8 * rows
    if saved >= ENOUGH and 4 * saved >= all_bytes:
        decision.row_index = index
        kept = {}
        for row, cell in enumerate(cells):
            if cell is not None:
                kept.setdefault(cell, row)
        decision.stored = list(kept.values())


def groups(rows, same, element):
    """The stored rows in groups: lists of consecutive rows."""
    out, largest = [], 0
    for i in range(len(rows)):
        if i and same[i] * element >= 64 and 2 * same[i] >= largest:
            out[-1].append(i)
            largest = max(largest, same[i])
        else:
            out.append([i])
            largest = 0
    return out


def share_prefixes(decision, rows, element):
    """rows: the bytes of each stored row."""
    stored = len(rows)
    if stored > LOOK_AT_MOST:
        return
    if stored > LOOK_AT_ALL:
        sample = places(stored)
        if sum(8 * common(rows[i - 1], rows[i], element) * element for i in sample) < sum(len(rows[i]) for i in sample):
            return
    same = [0] + [common(a, b, element) for a, b in zip(rows, rows[1:])]
    prefix_row, prefix_length = [0] * stored, [0] * stored
    for group in groups(rows, same, element):
        leader = max(group, key=lambda i: (len(rows[i]), -i))
        for i in group:
            if i != leader:
                prefix_row[i] = leader
                prefix_length[i] = min(same[min(i, leader) + 1:max(i, leader) + 1])
    saved = sum(prefix_length) * element - 16 * stored
    if saved >= ENOUGH and 8 * saved >= sum(map(len, rows)):
        decision.prefix_row, decision.prefix_length = prefix_row, prefix_length


def decide(cells, codec, element=1, prefixes=False, absent=b""):
    """element: bytes of one; prefixes: section 9 allows them here; absent: the bytes that an absent cell keeps (ndarray)."""
    decision = Decision(len(cells))
    if not (2 <= codec <= 8 or codec == 11):
        return decision
    data = b"".join(absent if cell is None else cell[0] for cell in cells)
    if codec <= 4 and data == data[:element] * (len(data) // element):
        return decision
    share_rows(decision, cells)
    if prefixes:
        share_prefixes(decision, [b"" if cells[row] is None else cells[row][0] for row in decision.stored], element)
    return decision
