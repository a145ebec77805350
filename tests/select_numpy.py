#!/usr/bin/env python3
"""TAP: random selections of the sample batches (3 fields, 1 row in 8: ranges, steps, index lists, masks) are what numpy
says, and need no other bytes.

A batch is packed into a mapping of its own; for each selection all pages outside head, index and the ranges lose their
access, the selection is copied out, and the bytes of the ranges are counted against those that numpy counts. The same
from a partial view over pieces in memory of their own. Needs numpy and a compiler. PACKBUF_DATA: the sample batches
outside the project; without them made-up ones of such shapes. SELECTIONS: how many (10000).
"""
import ctypes
import os
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import numpy
except ImportError:
    numpy = None

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path(os.environ.get('PACKBUF_DATA') or ROOT.parent / 'shared' / 'data')
SELECTIONS = int(os.environ.get('SELECTIONS', 10000))
count = failed = 0

DRIVER = r'''
#define _GNU_SOURCE
#define PACKBUF_IMPLEMENTATION
#include "packbuf.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct state {
  packbuf_arena build, arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_view view;
  packbuf_selection selection;
  packbuf_range *ranges;
  uint64_t range_count, size;
  uint8_t *map;
  uint8_t *pieces[4096];
} state;

state *driver_new(uint64_t rows, int sharing, int alignment) {
  state *s = calloc(1, sizeof *s);
  packbuf_options options = packbuf_default_options();
  options.row_sharing = (uint8_t)sharing;
  options.alignment_exponent = (uint8_t)alignment;
  packbuf_arena_init(&s->build, NULL);
  packbuf_arena_init(&s->arena, NULL);
  return packbuf_batch_init(&s->batch, rows, &s->build, &options, &s->error) ? NULL : s;
}
const char *driver_error(state *s) {
  static char line[512];
  packbuf_error_format(&s->error, line, sizeof line);
  return line;
}
int driver_dense(state *s, const char *name, const void *data, int code, int bits, int rank, const uint64_t *shape) {
  packbuf_tensor t;
  memset(&t, 0, sizeof t);
  t.data = data, t.rank = (uint8_t)rank, t.shape = shape;
  t.dtype = packbuf_dtype_of((packbuf_dtype_code)code, (unsigned)bits);
  return packbuf_add_tensor(&s->batch, name, &t, NULL, &s->error);
}
int driver_ragged(state *s, const char *name, const void *data, int code, int bits, uint64_t items,
                  const int64_t *offsets) {
  packbuf_ragged r;
  memset(&r, 0, sizeof r);
  r.data = data, r.items = items, r.offsets = offsets, r.offset_bits = 64;
  r.dtype = packbuf_dtype_of((packbuf_dtype_code)code, (unsigned)bits);
  return packbuf_add_ragged(&s->batch, name, &r, &s->error);
}
int driver_pack(state *s) {
  int status = packbuf_measure(&s->batch, &s->size, &s->error);
  if (status) return status;
  s->map = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  status = packbuf_write(&s->batch, s->map, s->size, NULL, &s->error);
  return status ? status : (int)packbuf_open(&s->view, s->map, s->size, PACKBUF_OPEN_EXACT, NULL, &s->error);
}
static uint64_t up(uint64_t at) { return (at + 4095) & ~(uint64_t)4095; }

/* kind 0: range, 1: index, 2: mask of bytes, 3: bitmap. Everything else loses its access. */
int driver_select(state *s, const char *const *names, uint64_t name_count, int kind, int64_t first, int64_t stop,
                  int64_t step, const void *list, uint64_t count,
                  uint64_t *rows, uint64_t *bytes) {
  const uint64_t head = s->view.head_length + s->view.index_length;
  const packbuf_row_selection r = kind == 0   ? packbuf_rows_range(first, stop, step)
                                  : kind == 1 ? packbuf_rows_index(list, count)
                                  : kind == 2 ? packbuf_rows_mask(list, count)
                                              : packbuf_rows_bitmap(list, count);
  int status;
  packbuf_arena_free(&s->arena);
  status = packbuf_select(&s->view, 0, names, name_count, r, &s->arena, &s->selection, &s->error);
  if (!status)
    status = packbuf_select_ranges(&s->selection, 1, 0, 0, &s->arena, &s->ranges, &s->range_count, &s->error);
  if (status) return status;
  *rows = s->selection.rows;
  *bytes = 0;
  mprotect(s->map + up(head), up(s->size) - up(head), PROT_NONE);
  for (uint64_t i = 0; i < s->range_count; i++) {
    const uint64_t from = s->ranges[i].offset & ~(uint64_t)4095, to = up(s->ranges[i].offset + s->ranges[i].length);
    *bytes += s->ranges[i].length;
    mprotect(s->map + from, to - from, PROT_READ);
  }
  return 0;
}
int driver_copy(state *s, const char *name, void *data, uint64_t capacity, int64_t *offsets, uint64_t *elements) {
  packbuf_node node;
  packbuf_select_into into;
  packbuf_selected_size size, done;
  int status = packbuf_find(&s->view, 0, name, &node, &s->error);
  memset(&into, 0, sizeof into);
  if (!status) status = packbuf_select_size(&s->selection, node.index, &size, &s->error);
  if (status) return status;
  into.data = data, into.data_capacity = capacity, into.offsets = offsets, into.rows = size.rows;
  status = packbuf_select_copy(&s->selection, node.index, &into, &done, &s->error);
  *elements = done.elements;
  return status ? status : memcmp(&size, &done, sizeof size) != 0;
}
/* The same from a partial view over pieces in memory of their own. */
int driver_partial(state *s, const char *const *names, uint64_t name_count, int kind, int64_t first, int64_t stop,
                   int64_t step, const void *list, uint64_t count,
                   const char *name, void *data, uint64_t capacity) {
  const packbuf_view whole = s->view;
  packbuf_fetched *fetched = calloc(s->range_count + 1, sizeof *fetched);
  const uint64_t head = whole.head_length + whole.index_length;
  uint8_t *start = malloc(head);
  uint64_t rows, bytes, elements, pieces = s->range_count;
  int status;
  memcpy(start, s->map, head);
  for (uint64_t i = 0; i < pieces; i++) {
    fetched[i].offset = s->ranges[i].offset, fetched[i].length = s->ranges[i].length;
    fetched[i].bytes = memcpy(malloc(fetched[i].length), s->map + fetched[i].offset, fetched[i].length);
  }
  status = packbuf_open_partial(&s->view, start, head, fetched, pieces, 0, NULL, &s->error);
  if (!status) status = driver_select(s, names, name_count, kind, first, stop, step, list, count, &rows, &bytes);
  if (!status) status = driver_copy(s, name, data, capacity, NULL, &elements);
  s->view = whole;
  for (uint64_t i = 0; i < pieces; i++) free((void *)fetched[i].bytes);
  free(fetched), free(start);
  return status;
}
'''


def ok(passed, name, *about):
    global count, failed
    count += 1
    print(('ok' if passed else 'not ok') + f' {count} - {name}', flush=True)
    if not passed:
        failed += 1
        for line in about:
            print(f'# {line}')
            print(f'# {name}: {line}', file=sys.stderr)


def skip(reason):
    global count
    count += 1
    print(f'ok {count} # SKIP {reason}')


def made_up(folder):
    """Batches like the sample's: prompts that repeat, padding, masks, positions, log-probs; dense, and ragged."""
    draw = numpy.random.default_rng(3)
    for name, rows, most in (('gsm8k', 336, 60), ('agent', 12, 900)):
        dense, ragged = folder / 'batch_dense' / name, folder / 'batch_ragged' / name
        prompts = numpy.repeat(draw.integers(0, 150000, (rows // 4, most)), 4, axis=0)
        lengths, responses = draw.integers(1, most, rows), draw.integers(0, most, rows)
        ids = numpy.concatenate((prompts, draw.integers(0, 150000, (rows, most))), axis=1)
        columns = {'prompts': prompts, 'input_ids': ids,
                   'attention_mask': (numpy.arange(2 * most) < lengths[:, None]).astype(numpy.int64),
                   'pads': numpy.zeros((rows, most), numpy.int64),
                   'position_ids': numpy.tile(numpy.arange(2 * most), (rows, 1)),
                   'old_log_probs': draw.random((rows, most), numpy.float32),
                   'seq_rewards': draw.random(rows, numpy.float32)}
        flat = {'input_ids': numpy.concatenate([ids[r, :n] for r, n in enumerate(lengths)]),
                'input_ids_offsets': numpy.concatenate(([0], numpy.cumsum(lengths))),
                'values': draw.random(int(responses.sum()), numpy.float32),
                'response_offsets': numpy.concatenate(([0], numpy.cumsum(responses))),
                'rewards': draw.random(rows, numpy.float32)}
        for where, arrays in ((dense, {**columns, 'returns': columns['old_log_probs']}), (ragged, flat)):
            where.mkdir(parents=True)
            for key, array in arrays.items():
                numpy.save(where / f'{key}.npy', array)


def build(folder):
    source, library = pathlib.Path(folder) / 'driver.c', pathlib.Path(folder) / 'driver.so'
    source.write_text(DRIVER)
    subprocess.run([os.environ.get('CC', 'gcc'), '-std=c11', '-O2', '-w', '-fPIC', '-shared', f'-I{ROOT}', '-o',
                    library, source], check=True)
    lib = ctypes.CDLL(str(library))
    u64, i64, pointer, text = ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
    selecting = [pointer, ctypes.POINTER(text), u64, ctypes.c_int, i64, i64, i64, pointer, u64]
    lib.driver_new.restype, lib.driver_new.argtypes = pointer, [u64, ctypes.c_int, ctypes.c_int]
    lib.driver_error.restype, lib.driver_error.argtypes = text, [pointer]
    lib.driver_dense.argtypes = [pointer, text, pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int, pointer]
    lib.driver_ragged.argtypes = [pointer, text, pointer, ctypes.c_int, ctypes.c_int, u64, pointer]
    lib.driver_pack.argtypes = [pointer]
    lib.driver_select.argtypes = selecting + [ctypes.POINTER(u64), ctypes.POINTER(u64)]
    lib.driver_copy.argtypes = [pointer, text, pointer, u64, pointer, ctypes.POINTER(u64)]
    lib.driver_partial.argtypes = selecting + [text, pointer, u64]
    return lib


class Batch:
    """The columns of a folder as numpy has them, and packed."""

    def __init__(self, lib, folder, sharing, alignment):
        self.lib, self.columns, self.names, self.sharing = lib, {}, [], sharing
        arrays = {path.stem: numpy.load(path) for path in sorted(folder.glob('*.npy'))}
        ragged = 'input_ids_offsets' in arrays
        self.rows = len(arrays['input_ids_offsets']) - 1 if ragged else len(arrays['input_ids'])
        self.state = lib.driver_new(self.rows, sharing, alignment)
        for name, array in arrays.items():
            if name.endswith('_offsets'):
                continue
            offsets = None
            if ragged and len(array) != self.rows:
                offsets = next(a for n, a in arrays.items() if n.endswith('_offsets') and a[-1] == len(array))
            self.add(name, numpy.ascontiguousarray(array), offsets)
        if lib.driver_pack(self.state):
            raise SystemExit(lib.driver_error(self.state))

    def add(self, name, array, offsets):
        code, bits = {'i': 0, 'u': 1, 'f': 2}[array.dtype.kind], array.dtype.itemsize * 8
        self.columns[name] = (array, offsets)
        self.names.append(name.encode())  # the batch keeps a pointer
        if offsets is None:
            shape = numpy.array(array.shape, dtype=numpy.uint64)
            status = self.lib.driver_dense(self.state, self.names[-1], array.ctypes.data, code, bits, array.ndim,
                                           shape.ctypes.data)
        else:
            status = self.lib.driver_ragged(self.state, self.names[-1], array.ctypes.data, code, bits, len(array),
                                            offsets.ctypes.data)
        if status:
            raise SystemExit(self.lib.driver_error(self.state))

    def expected(self, name, rows):
        """What numpy gives: data and, of a ragged column, offsets; and how many bytes lie in the rows, each once."""
        array, offsets = self.columns[name]
        once = numpy.unique(rows)
        if offsets is None:
            return array[rows], None, array[once].nbytes
        parts = [array[offsets[r]:offsets[r + 1]] for r in rows]
        lengths = offsets[1:] - offsets[:-1]
        return (numpy.concatenate(parts) if parts else array[:0], numpy.concatenate(([0], numpy.cumsum(lengths[rows]))),
                int(lengths[once].sum()) * array.itemsize)


def random_rows(rng, rows):
    """About one row in eight: the arguments of driver_select, and the rows as numpy's own indexing gives them."""
    some, every, kind = max(1, rows // 8), numpy.arange(rows), rng.randrange(6)
    if kind == 0:
        first = rng.randrange(-rows, rows)
        stop = first + some if first >= 0 or first + some < 0 else rows
        return (0, first, stop, 1, None), every[first:stop]
    if kind == 1:
        first, step = rng.randrange(rows), rng.randrange(7, 10)
        return (0, first % step, rows + rng.randrange(3), step, None), every[first % step:rows:step]
    if kind == 2:
        first, step = rng.randrange(-4 * rows, 4 * rows), -rng.randrange(6, 10)
        stop = rng.randrange(-2 * rows, 2 * rows)
        return (0, first, stop, step, None), every[first:stop:step]
    if kind == 3:
        index = numpy.array([rng.randrange(-rows, rows) for _ in range(some)], dtype=numpy.int64)
        return (1, 0, 0, 0, index), every[index]
    mask = numpy.array([rng.random() < 0.125 for _ in range(rows)])
    if kind == 4:
        return (2, 0, 0, 0, mask.astype(numpy.uint8)), every[mask]
    return (3, 0, 0, 0, numpy.packbits(mask, bitorder='little')), every[mask]


def check(batch, rng):
    """One selection; what is wrong with it, or None."""
    lib, state = batch.lib, batch.state
    names = rng.sample(sorted(batch.columns), 3)
    (kind, first, stop, step, listed), rows = random_rows(rng, batch.rows)
    count = 0 if listed is None else batch.rows if kind >= 2 else len(listed)
    arguments = (state, (ctypes.c_char_p * 3)(*[n.encode() for n in names]), 3, kind, first, stop, step,
                 None if listed is None else listed.ctypes.data, count)
    got_rows, bytes_needed, elements = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64()
    if lib.driver_select(*arguments, got_rows, bytes_needed):
        return lib.driver_error(state)
    if got_rows.value != len(rows):
        return f'{got_rows.value} rows, not {len(rows)}'
    least = 0
    results = []
    for name in names:
        data, offsets, size = batch.expected(name, rows)
        least += size
        out = numpy.full(data.shape, 77, dtype=data.dtype)
        out_offsets = numpy.zeros(len(rows) + 1, dtype=numpy.int64)
        if lib.driver_copy(state, name.encode(), out.ctypes.data, out.nbytes, out_offsets.ctypes.data, elements):
            return f'{name}: {lib.driver_error(state)}'
        same = elements.value == data.size and out.tobytes() == data.tobytes()
        if not same or (offsets is not None and not numpy.array_equal(out_offsets, offsets)):
            return f'{name}: differs from numpy'
        results.append((name, data))
    if bytes_needed.value > least or (not batch.sharing and bytes_needed.value != least - computed(batch, names, rows)):
        return f'{bytes_needed.value} bytes for {least}'
    if rng.random() < 0.1:
        name, data = rng.choice(results)
        out = numpy.full(data.shape, 77, dtype=data.dtype)
        if lib.driver_partial(*arguments, name.encode(), out.ctypes.data, out.nbytes):
            return f'{name}, partial: {lib.driver_error(state)}'
        if out.tobytes() != data.tobytes():
            return f'{name}, partial: differs from numpy'
    return None


def computed(batch, names, rows):
    """Bytes that need not be fetched although numpy holds them: columns whose elements are all equal, and equal
    columns, of which one is an alias."""
    saved, seen = 0, {}
    for name in names:
        array, offsets = batch.columns[name]
        size = batch.expected(name, rows)[2]
        key = array.tobytes() if offsets is None else array.tobytes() + offsets.tobytes()
        if array.size and (array == array.flat[0]).all():
            saved += size
        elif hash(key) in seen:
            saved += size
        seen[hash(key)] = name
    return saved


def main():
    if numpy is None:
        skip('no numpy')
        print('1..1')
        return 0
    rng = random.Random(20)
    with tempfile.TemporaryDirectory() as folder:
        lib, data = build(folder), DATA
        if not data.is_dir():
            data = pathlib.Path(folder) / 'data'
            print('# made-up batches: PACKBUF_DATA is not there')
            made_up(data)
        for kind, name in (('batch_dense', 'gsm8k'), ('batch_ragged', 'gsm8k'), ('batch_dense', 'agent'),
                           ('batch_ragged', 'agent')):
            for sharing in (0, 1):
                batch = Batch(lib, data / kind / name, sharing, rng.choice((6, 12)))
                share = SELECTIONS * (4 if name == 'gsm8k' else 1) // 20
                wrong = next(filter(None, (check(batch, rng) for _ in range(share))), None)
                shared = ', rows shared' if sharing else ''
                ok(wrong is None, f'{kind}/{name}, {len(batch.columns)} fields, {batch.rows} rows{shared}: {share} '
                   "selections of 3 fields are numpy's, from their own bytes alone", wrong)
    print(f'1..{count}')
    return failed != 0


sys.exit(main())
