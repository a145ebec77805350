/* Fuzz target: any bytes as a packed buffer, its head's checksum put right, and a selection that the same bytes choose. It is sized, copied out, read as
 * values and in place; its ranges are fetched into memory of their own, and what the partial view gives is what the whole one gave.
 * Bytes that do not begin as a packed buffer does say what a batch is: its columns, what is in them, and how they are packed (the batch, and each field).
 * Written so and plain, selections and joins of both give the same; then the packed one is broken where the bytes say, and taken as any other.
 * May use: packbuf.h and its insides, tests/selecting.h, tests/sealing.h. Must not know: how the vectors were made. */
#include "packbuf.h"
#include "tests/sealing.h"
#include "tests/selecting.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { MOST = 1 << 14 };

static void demand(int holds) {
  if (!holds) abort();
}

static volatile unsigned touched;

static void touch(const void *bytes, uint64_t size) {
  for (uint64_t i = 0; i < size; i += size > 4096 ? size / 4096 : 1) touched += ((const uint8_t *)bytes)[i];
  if (size) touched += ((const uint8_t *)bytes)[size - 1];
}

static uint64_t seed_of(const uint8_t *data, size_t size) {
  uint64_t seed = size;
  for (size_t i = 0; i < size && i < 64; i++) seed = seed * 31 + data[size - 1 - i];
  return seed;
}

static void in_place(const packbuf_selection *s, uint32_t node) {
  packbuf_selected_tensor tensor;
  packbuf_ragged ragged;
  if (packbuf_select_tensor(s, node, &tensor, NULL) == PACKBUF_OK) {
    uint64_t each = bytes_each(tensor.tensor.dtype);
    for (unsigned d = 1; d < tensor.tensor.rank; d++) each *= tensor.shape[d];
    for (uint64_t i = 0; each && i < tensor.shape[0] && i < 64; i++) touch((const uint8_t *)tensor.tensor.data + (int64_t)i * tensor.strides[0], each);
  }
  if (packbuf_select_ragged(s, node, &ragged, NULL) == PACKBUF_OK) {
    touch(ragged.data, ragged.items * bytes_each(ragged.dtype));
    touch(ragged.offsets, 8);
  }
}

/* Offsets that were written ascend and end where the data end, whatever the input says. */
static void offsets_hold(const packbuf_selection *s, uint32_t node, const selecting_column *c) {
  packbuf_node n;
  uint64_t before = 0, count = c->size.rows;
  if (packbuf_get_node(s->view, node, &n, NULL) || n.kind != PACKBUF_LEAF || n.codec < PACKBUF_CODEC_RAGGED_TENSOR) return;
  if (n.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) count = c->size.items;
  for (uint64_t i = 0; i <= count; i++) {
    const uint64_t offset = selecting_offset(c->into.offsets, 64, i);
    demand(offset >= before && (i != 0 || offset == 0));
    before = offset;
  }
  demand(before == c->size.elements);
}

/* What was copied, over again as integers that the seed chooses, into memory of exactly their size. */
static void as_others(const packbuf_selection *s, uint32_t node, const selecting_column *c, uint64_t seed) {
  packbuf_select_into into = c->into;
  packbuf_selected_size size;
  selecting_column again = *c;
  if (c->status != PACKBUF_OK) return;
  into.dtype = packbuf_dtype_of(seed & 1 ? PACKBUF_DTYPE_UINT : PACKBUF_DTYPE_INT, 8u << (seed >> 1 & 3));
  into.data_capacity = c->size.elements * (into.dtype.bits / 8u);
  into.data = seed & 56 ? malloc((size_t)into.data_capacity + !into.data_capacity) : NULL;
  again.status = packbuf_select_copy(s, node, &into, &size, NULL);
  if (again.status == PACKBUF_OK) {
    demand(size.elements == c->size.elements);
    offsets_hold(s, node, &again);
  }
  free(into.data);
}

static void partial(const uint8_t *data, const packbuf_selection *s, const char *const *patterns, size_t count, packbuf_row_selection rows, packbuf_arena *arena, int verified) {
  packbuf_range *ranges;
  uint64_t range_count, end = s->view->head_length + s->view->index_length;
  packbuf_error error;
  selecting_partial p;
  packbuf_selection again;
  const packbuf_status status = packbuf_select_ranges(s, 1, (s->rows & 7) * 16, s->rows & 8 ? PACKBUF_RANGES_CHUNKS : 0, arena, &ranges, &range_count, &error);
  if (status != PACKBUF_OK) return;
  for (uint64_t i = 0; i < range_count; i++) {
    demand(ranges[i].length && ranges[i].offset >= end && ranges[i].length <= s->view->total_length - ranges[i].offset);
    end = ranges[i].offset + ranges[i].length;
  }
  if (selecting_fetch(&p, data, s->view, ranges, range_count, &error) == PACKBUF_OK && packbuf_select(&p.view, 0, patterns, count, rows, arena, &again, &error) == PACKBUF_OK) {
    for (uint32_t i = 0; i < s->node_count && i < 64; i++) {
      selecting_column a, b;
      if (s->flags[s->nodes[i]] != 2) continue;
      for (int all = 0; all < 2; all++) {
        selecting_copy(s, s->nodes[i], all, 64, MOST, &a, &error);
        selecting_copy(&again, s->nodes[i], all, 64, MOST, &b, &error);
        if (verified) demand(selecting_same(&a, &b) == NULL);
        as_others(&again, s->nodes[i], &b, s->rows + i);
        if (!verified && all == 0 && a.status == PACKBUF_OK) demand(b.status != PACKBUF_NOT_FETCHED && (b.status != PACKBUF_OK || selecting_same(&a, &b) == NULL));
        selecting_column_free(&a), selecting_column_free(&b);
      }
    }
    if (s->rows <= 64) {
      packbuf_value x[64], y[64];
      const packbuf_status one = packbuf_select_values(s, 0, s->rows, arena, x, &error), other = packbuf_select_values(&again, 0, s->rows, arena, y, &error);
      if (verified && one != PACKBUF_OUT_OF_MEMORY && other != PACKBUF_OUT_OF_MEMORY) demand(one == other);
      for (uint64_t i = 0; verified && one == PACKBUF_OK && other == PACKBUF_OK && i < s->rows; i++) demand(packbuf_equal(&x[i], &y[i]));
    }
    (void)packbuf_verify_fetched(&p.view, NULL, &error);
  }
  selecting_fetch_free(&p);
}

/* A selection that `seed` chooses from any packed buffer. */
static void any_bytes(const uint8_t *data, size_t size, uint64_t seed) {
  packbuf_limits limits = packbuf_default_limits();
  packbuf_arena arena;
  packbuf_error error;
  packbuf_view view;
  limits.decoded_bytes = 1 << 20;
  limits.rows = UINT64_C(1) << 48;
  packbuf_arena_init(&arena, NULL);
  arena.limit = 1 << 22;
  if (packbuf_open(&view, data, size, 0, &limits, &error) == PACKBUF_OK && view.node_count < 4096) {
    const int verified = packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error) == PACKBUF_OK;
    char path[256];
    const char *patterns[1];
    const size_t count = view.node_count != 0 && seed % 3;
    packbuf_selection s;
    selecting_rows rows;
    patterns[0] = seed % 3 == 1 ? "**" : path;
    if (view.node_count) (void)packbuf_node_path(&view, (uint32_t)(seed % view.node_count), path, sizeof path);
    selecting_rows_make(&rows, view.rows, 64, &seed);
    if (packbuf_select(&view, 0, patterns, count, rows.rows, &arena, &s, &error) == PACKBUF_OK) {
      demand(s.rows == rows.count || view.rows > 64);
      for (uint32_t i = 0; i < s.node_count && i < 64; i++) {
        selecting_column c;
        selecting_copy(&s, s.nodes[i], (int)(seed & 1), 64, MOST, &c, &error);
        if (c.status == PACKBUF_OK) offsets_hold(&s, s.nodes[i], &c);
        as_others(&s, s.nodes[i], &c, seed >> 8);
        selecting_column_free(&c);
        in_place(&s, s.nodes[i]);
      }
      partial(data, &s, patterns, count, rows.rows, &arena, verified);
    }
    selecting_rows_free(&rows);
  }
  packbuf_arena_free(&arena);
}

/* ---- bytes that say what a batch is ---- */

typedef struct maker {
  const uint8_t *at, *end;
  uint64_t seed;
  packbuf_arena arena; /* what the batch describes */
} maker;

static unsigned next(maker *m) { return m->at < m->end ? *m->at++ : 0; }

static void *room(maker *m, uint64_t size) {
  void *memory = packbuf_arena_alloc(&m->arena, (size_t)size + 1, 8);
  if (!memory) abort();
  memset(memory, 0, (size_t)size + 1);
  return memory;
}

/* Runs of numbers that pack in one way or another: the next bytes say which. */
static void *numbers(maker *m, uint64_t count, unsigned bytes) {
  uint8_t *to = (uint8_t *)room(m, count * bytes);
  for (uint64_t at = 0; at < count;) {
    const unsigned style = next(m);
    const uint64_t base = style & 8 ? selecting_random(&m->seed) : selecting_below(&m->seed, 200), run = 1 + ((uint64_t)next(m) << style % 4);
    for (uint64_t i = 0; i < run && at < count; i++, at++) {
      const uint64_t noise = selecting_random(&m->seed);
      uint64_t number = base;
      uint8_t bits[8];
      if (style % 8 == 1) number = base + i * (style >> 4);
      if (style % 8 == 2) number = base + (noise >> (40 + style / 16));
      if (style % 8 == 3) number = noise % 40 ? 0 : noise;
      if (style % 8 == 4) number = UINT64_C(0xBF8000003F000000) ^ (noise & UINT64_C(0x01FFFFFF01FFFFFF));
      if (style % 8 == 5) number = noise % 3 ? noise >> 56 : noise >> 46;
      if (style % 8 == 6) number = noise;
      bytes_store64(bits, number);
      memcpy(to + at * bytes, bits, bytes);
    }
  }
  return to;
}

static packbuf_dtype dtype_of(unsigned which) {
  static const uint8_t codes[12] = {PACKBUF_DTYPE_INT,  PACKBUF_DTYPE_INT,   PACKBUF_DTYPE_INT,   PACKBUF_DTYPE_INT,   PACKBUF_DTYPE_UINT,  PACKBUF_DTYPE_UINT,
                                    PACKBUF_DTYPE_UINT, PACKBUF_DTYPE_FLOAT, PACKBUF_DTYPE_FLOAT, PACKBUF_DTYPE_FLOAT, PACKBUF_DTYPE_BFLOAT, PACKBUF_DTYPE_COMPLEX};
  static const uint8_t widths[12] = {64, 32, 16, 8, 64, 16, 8, 64, 32, 16, 16, 64};
  return packbuf_dtype_of((packbuf_dtype_code)codes[which % 12], widths[which % 12]);
}

static packbuf_value cell(maker *m, unsigned style, uint64_t row) {
  static const char *const keys[3] = {"k", "l", "s"};
  packbuf_entry *entries = (packbuf_entry *)room(m, 3 * sizeof *entries);
  packbuf_value *items = (packbuf_value *)room(m, 8 * sizeof *items);
  const uint64_t count = selecting_below(&m->seed, 1 + style % 6);
  if (style & 16 && selecting_below(&m->seed, 5) == 0) return packbuf_null();
  for (uint64_t i = 0; i < count; i++) items[i] = style & 32 && i % 2 ? packbuf_null() : packbuf_int((int64_t)(row + i * (style >> 6)));
  for (unsigned i = 0; i < 3; i++) entries[i].key = packbuf_string(keys[i]);
  entries[0].value = style & 8 && row % 3 ? packbuf_missing() : packbuf_int((int64_t)selecting_below(&m->seed, 300));
  entries[1].value = packbuf_list(items, (size_t)count);
  entries[2].value = packbuf_string_n("some text that repeats", (size_t)selecting_below(&m->seed, 22));
  return packbuf_dict(entries, 3);
}

static packbuf_status ragged(maker *m, packbuf_batch *batch, const char *name, uint64_t rows, packbuf_error *error) {
  const unsigned form = next(m), most = next(m) % 48u + 1;
  uint64_t *shape = (uint64_t *)room(m, 8);
  int64_t *offsets = (int64_t *)room(m, (rows + 1) * 8);
  packbuf_ragged r;
  memset(&r, 0, sizeof r);
  r.dtype = dtype_of(form);
  r.item_rank = form / 16 % 2;
  r.item_shape = shape, shape[0] = 3;
  r.offset_bits = 64;
  r.offsets = offsets;
  for (uint64_t i = 0; i < rows; i++) offsets[i + 1] = offsets[i] + (int64_t)(form & 32 ? selecting_below(&m->seed, most) : most);
  r.items = (uint64_t)offsets[rows];
  r.data = numbers(m, r.items * (r.item_rank ? 3 : 1), r.dtype.bits / 8);
  if (form & 64) r.validity = (const uint8_t *)numbers(m, rows / 8 + 1, 1);
  return packbuf_add_ragged(batch, name, &r, error);
}

static packbuf_status column(maker *m, packbuf_batch *batch, const char *name, uint64_t rows, packbuf_error *error) {
  const unsigned kind = next(m), style = next(m);
  uint64_t *shape = (uint64_t *)room(m, 16);
  packbuf_value *values;
  packbuf_text *texts;
  packbuf_tensor t;
  switch (kind % 5) {
    case 0: break;
    case 1:
    case 2: return ragged(m, batch, name, rows, error);
    case 3:
      texts = (packbuf_text *)room(m, rows * sizeof *texts);
      for (uint64_t i = 0; i < rows; i++) texts[i].size = (size_t)selecting_below(&m->seed, style + 1u), texts[i].data = style % 7 || i % 5 ? (const char *)numbers(m, texts[i].size, 1) : NULL;
      return packbuf_add_bytes(batch, name, texts, error);
    default:
      values = (packbuf_value *)room(m, rows * sizeof *values);
      for (uint64_t i = 0; i < rows; i++) values[i] = cell(m, style, i);
      return packbuf_add_values(batch, name, values, error);
  }
  memset(&t, 0, sizeof t);
  t.dtype = dtype_of(style);
  t.rank = (uint8_t)(1 + kind / 8 % 2);
  t.shape = shape, shape[0] = rows, shape[1] = kind / 16u * 3 + 1;
  t.data = numbers(m, rows * (t.rank == 2 ? shape[1] : 1), t.dtype.bits / 8);
  return packbuf_add_tensor(batch, name, &t, kind & 128 ? (const uint8_t *)numbers(m, rows / 8 + 1, 1) : NULL, error);
}

static const char *const names[4] = {"a", "b", "c", "d"};

/* The batch, written as the bytes say or plain: the caller's memory. *rest: what the bytes say beyond. */
static uint8_t *written(const uint8_t *input, size_t size, int plain, uint64_t *length, packbuf_options *options, packbuf_schema *schemas, maker *rest) {
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_status status;
  uint64_t rows, bound = 0;
  uint8_t *memory = NULL;
  maker m;
  memset(&m, 0, sizeof m);
  m.at = input, m.end = input + size;
  packbuf_arena_init(&m.arena, NULL);
  packbuf_arena_init(&arena, NULL);
  m.seed = next(&m);
  rows = 1 + next(&m) % 96u;
  *options = packbuf_default_options();
  options->packing = (uint8_t)(next(&m) % 6);
  options->link_gbits = next(&m);
  options->row_sharing = (uint8_t)(next(&m) % 2);
  options->alignment_exponent = (uint8_t)(next(&m) % 8 ? 6 : 9);
  memset(schemas, 0, 4 * sizeof *schemas);
  for (unsigned i = 0; i < 4; i++) {
    const unsigned wish = next(&m);
    schemas[i].path = names[i];
    schemas[i].packing = (uint8_t)(wish & 8 ? wish % 8 % 6 : 0);
    schemas[i].flags = PACKBUF_IF_PRESENT | (wish & 240 ? 0 : PACKBUF_KEEP_PLAIN);
    if (schemas[i].flags & PACKBUF_KEEP_PLAIN) schemas[i].packing = 0; /* both are refused */
    if (plain) schemas[i].packing = 0, schemas[i].flags = PACKBUF_IF_PRESENT;
  }
  if (plain) options->packing = PACKBUF_PACKING_NONE;
  options->schemas = schemas, options->schema_count = 4;
  status = packbuf_batch_init(&batch, rows, &arena, options, &error);
  for (unsigned i = 0, count = 1 + next(&m) % 4u; i < count && !status; i++) {
    const unsigned repeat = next(&m);
    const maker before = m;
    status = column(&m, &batch, names[i], rows, &error);
    if (repeat % 3 == 0 && i + 1 < count && !status) { /* the same again, under the next name */
      m.at = before.at, m.seed = before.seed;
      status = column(&m, &batch, names[++i], rows, &error);
    }
  }
  if (!status) status = packbuf_measure(&batch, &bound, &error);
  if (!status) memory = (uint8_t *)malloc((size_t)bound);
  if (memory) demand(packbuf_write(&batch, memory, bound, length, &error) == PACKBUF_OK);
  if (rest) *rest = m;
  packbuf_arena_free(&arena);
  packbuf_arena_free(&m.arena);
  return memory;
}

/* Selections of both give the same. */
static void same_selected(const packbuf_view *plain, const packbuf_view *packed, uint64_t *seed) {
  packbuf_arena arena;
  packbuf_error error;
  packbuf_selection x, y;
  selecting_rows rows;
  unsigned converted = 0;
  packbuf_value one[96], other[96];
  packbuf_arena_init(&arena, NULL);
  selecting_rows_make(&rows, plain->rows, 64, seed);
  demand(packbuf_select(plain, 0, NULL, 0, rows.rows, &arena, &x, &error) == PACKBUF_OK && packbuf_select(packed, 0, NULL, 0, rows.rows, &arena, &y, &error) == PACKBUF_OK);
  demand(x.rows == y.rows && x.node_count == y.node_count && x.rows <= 96);
  for (uint32_t i = 0; i < x.node_count; i++) {
    selecting_column a, b;
    for (int all = 0; all < 2; all++) {
      selecting_copy(&x, x.nodes[i], all, all ? 64 : 32, 1 << 20, &a, &error);
      selecting_copy(&y, y.nodes[i], all, all ? 64 : 32, 1 << 20, &b, &error);
      demand(a.status == PACKBUF_OK && selecting_same(&a, &b) == NULL);
      if (all) demand(selecting_check_converted(&y, y.nodes[i], &b, &converted) == NULL);
      selecting_column_free(&a), selecting_column_free(&b);
    }
    in_place(&y, y.nodes[i]);
  }
  demand(packbuf_select_values(&x, 0, x.rows, &arena, one, &error) == PACKBUF_OK && packbuf_select_values(&y, 0, y.rows, &arena, other, &error) == PACKBUF_OK);
  for (uint64_t i = 0; i < x.rows; i++) demand(packbuf_equal(&one[i], &other[i]));
  selecting_rows_free(&rows);
  packbuf_arena_free(&arena);
}

/* The rows of two packed buffers as one. */
static uint8_t *joined(const packbuf_view *first, const packbuf_view *second, const packbuf_options *options, uint64_t *length) {
  packbuf_view views[2];
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  uint64_t bound = 0;
  uint8_t *memory = NULL;
  packbuf_status status;
  views[0] = *first, views[1] = *second;
  packbuf_arena_init(&arena, NULL);
  status = packbuf_concat(views, 2, 0, &arena, options, &batch, &error);
  if (!status) status = packbuf_measure(&batch, &bound, &error);
  if (!status) memory = (uint8_t *)malloc((size_t)bound);
  demand(memory != NULL && packbuf_write(&batch, memory, bound, length, &error) == PACKBUF_OK);
  packbuf_arena_free(&arena);
  return memory;
}

static void a_batch(const uint8_t *input, size_t size) {
  packbuf_options options, plain_options;
  packbuf_schema schemas[4], plain_schemas[4];
  packbuf_error error;
  packbuf_view views[2];
  maker rest;
  uint64_t plain_size = 0, packed_size = 0, one_size = 0, other_size = 0, seed = seed_of(input, size);
  uint8_t *plain = written(input, size, 1, &plain_size, &plain_options, plain_schemas, NULL),
          *packed = written(input, size, 0, &packed_size, &options, schemas, &rest), *one, *other;
  demand((plain == NULL) == (packed == NULL));
  if (plain) {
    demand(packbuf_open(&views[0], plain, plain_size, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_OK && packbuf_verify(&views[0], PACKBUF_LEVEL_FULL, &error) == PACKBUF_OK);
    demand(packbuf_open(&views[1], packed, packed_size, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_OK && packbuf_verify(&views[1], PACKBUF_LEVEL_FULL, &error) == PACKBUF_OK);
    same_selected(&views[0], &views[1], &seed);
    one = joined(&views[1], &views[0], &options, &one_size);
    other = joined(&views[0], &views[0], &options, &other_size);
    demand(one_size == other_size && memcmp(one, other, (size_t)one_size) == 0);
    demand(packbuf_open(&views[1], one, one_size, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_OK && packbuf_verify(&views[1], PACKBUF_LEVEL_FULL, &error) == PACKBUF_OK);
    free(other);
    other = joined(&views[0], &views[0], &plain_options, &other_size);
    demand(packbuf_open(&views[0], other, other_size, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_OK);
    same_selected(&views[0], &views[1], &seed);
    free(one), free(other);
    any_bytes(packed, packed_size, seed);
    for (unsigned i = 0; i < 4 && rest.at < rest.end; i++) {
      const uint64_t where = (uint64_t)next(&rest) << 8 | next(&rest);
      packed[(where & 1 ? where * 8 : packed_size - 1 - where) % packed_size] ^= (uint8_t)next(&rest);
    }
    seal_all(packed, packed_size);
    any_bytes(packed, packed_size, seed);
  }
  free(plain);
  free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  uint8_t *data;
  if (size && input[0] != 0x89) {
    a_batch(input, size);
    return 0;
  }
  data = (uint8_t *)malloc(size ? size : 1);
  if (!data) return 0;
  if (size) memcpy(data, input, size);
  seal_head(data, size);
  any_bytes(data, size, seed_of(input, size));
  free(data);
  return 0;
}

/* Half of the mutations set an aligned number of head or index to one that matters. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned random) {
  static const uint64_t numbers[] = {0, 1, 2, 3, 7, 8, 9, 64, 65, 0xFFFFFFFF, UINT64_MAX, UINT64_C(1) << 48, UINT64_C(1) << 62, UINT64_MAX - 1};
  uint64_t seed = random;
  if (size >= 256 && data[0] == 0x89 && selecting_below(&seed, 2)) {
    const uint64_t at = selecting_below(&seed, size / 8 - 16) * 8 + 64, number = numbers[selecting_below(&seed, sizeof numbers / sizeof *numbers)];
    const unsigned width = 1u << selecting_below(&seed, 4);
    uint8_t bytes[8];
    bytes_store64(bytes, number);
    memcpy(data + at, bytes, width);
  } else {
#ifdef FUZZ_TARGET
    (void)max_size;
#else
    size = LLVMFuzzerMutate(data, size, max_size);
#endif
  }
  return size;
}
