/* Packed batches against the same batches written plain: every source and codec, content that packs in every way, every
 * packing; rows, cells, selections, partial views; parts, a callback, one field alone; allocations that fail. */
#include "../packbuf.h"
#include "batches.h"
#include "failing.h"
#include "sealing.h"
#include "selecting.h"
#include "tap.h"

/* A pool in which small numbers, ramps, runs, constants, floats of few exponents and noise follow each other, so that
 * whatever is taken from it packs in some way. */
static batches_pool packable_pool(void) {
  batches_pool pool = batches_make_pool();
  for (size_t at = 0, stretch; at < POOL; at += stretch) {
    const unsigned style = mv_below(8), shift = mv_below(20);
    const uint64_t base = mv_below(4) ? mv_below(1000) : mv_random();
    stretch = (size_t)8 << mv_below(13);
    if (stretch > POOL - at) stretch = POOL - at;
    for (size_t i = 0; i + 8 <= stretch; i += 8) {
      uint64_t value = base;
      if (style == 1) value = base + i / 8;
      if (style == 2) value = base + (mv_random() >> (44 + shift));
      if (style == 3) value = mv_below(40) ? 0 : mv_random();
      if (style == 4) value = UINT64_C(0xBF8000003F000000) ^ (mv_random() & UINT64_C(0x01FFFFFF01FFFFFF));
      if (style == 5) value = mv_below(3) ? mv_below(256) : mv_below(1 << 18);
      if (style == 6) value = mv_random();
      memcpy(pool.bytes + at + i, &value, 8);
    }
  }
  for (size_t i = 0, run = 0, bit = 0; i < POOL; i++, run--) {
    if (!run) run = 1 + mv_below(mv_below(2) ? 4 : 5000), bit = !bit;
    pool.bools[i] = (uint8_t)bit;
  }
  return pool;
}

typedef struct pair {
  mv_trip plain, packed;
  uint64_t room; /* of the packed one */
} pair;

/* As mv_trip_pack, of a batch whose size is a bound. */
static int pack_bounded(pair *p) {
  mv_trip *t = &p->packed;
  t->step = "measure";
  if (packbuf_measure(&t->batch, &p->room, &t->error)) return 0;
  t->step = "write";
  t->data = (uint8_t *)malloc((size_t)p->room);
  memset(t->data, 0xa5, (size_t)p->room);
  if (packbuf_write(&t->batch, t->data, p->room, &t->size, &t->error)) return 0;
  t->step = "open";
  if (t->size > p->room || packbuf_open(&t->view, t->data, t->size, PACKBUF_OPEN_EXACT, NULL, &t->error)) return 0;
  t->step = "verify";
  return !packbuf_verify(&t->view, PACKBUF_LEVEL_FULL, &t->error);
}

static int fill_pair(pair *p, const batches_pool *pool, uint64_t rows, unsigned fields,
                     const packbuf_options *options) {
  const uint64_t seed = mv_seed;
  packbuf_options plain = *options;
  int good;
  plain.packing = PACKBUF_PACKING_NONE;
  mv_trip_begin(&p->plain, rows, &plain);
  mv_trip_begin(&p->packed, rows, options);
  good = !batches_fill(&p->plain.batch, pool, rows, fields, &p->plain.error);
  mv_seed = seed; /* the same again */
  good = good && !batches_fill(&p->packed.batch, pool, rows, fields, &p->packed.error);
  good = good && !mv_trip_pack(&p->plain) && pack_bounded(p);
  if (!good) tap_note("plain %s: %s; packed %s", p->plain.step, mv_error(&p->plain.error), p->packed.step);
  if (!good) tap_note("packed: %s", mv_error(&p->packed.error));
  return good;
}

static void end_pair(pair *p) {
  mv_trip_end(&p->plain);
  mv_trip_end(&p->packed);
}

static int same_rows(pair *p) {
  const uint64_t rows = p->plain.view.rows;
  packbuf_value *x = (packbuf_value *)mv_alloc((size_t)(rows + 1) * sizeof *x),
                *y = (packbuf_value *)mv_alloc((size_t)(rows + 1) * sizeof *y);
  if (packbuf_read_rows(&p->plain.view, 0, rows, &p->plain.back, x, &p->plain.error)) return 0;
  if (packbuf_read_rows(&p->packed.view, 0, rows, &p->packed.back, y, &p->packed.error)) {
    tap_note("rows: %s", mv_error(&p->packed.error));
    return 0;
  }
  for (uint64_t i = 0; i < rows; i++)
    if (!packbuf_equal(&x[i], &y[i])) {
      tap_note("row %llu differs", (unsigned long long)i);
      return 0;
    }
  return 1;
}

static int is_ragged(const packbuf_view *view, uint32_t index) {
  packbuf_node node;
  return !packbuf_get_node(view, index, &node, NULL) && node.kind == PACKBUF_LEAF &&
         node.codec >= PACKBUF_CODEC_RAGGED_TENSOR && node.rows;
}

/* Some rows of all fields, copied out of the plain one, the packed one, and of the ranges that the packed one asks for.
 */
static int same_selection(pair *p, uint64_t *seed, uint64_t *fetched, unsigned *converted) {
  selecting_rows rows;
  packbuf_selection a, b, c;
  packbuf_range *ranges = NULL;
  uint64_t count = 0;
  selecting_partial partial;
  packbuf_error *error = &p->packed.error;
  const char *wrong = NULL;
  memset(&partial, 0, sizeof partial);
  selecting_rows_make(&rows, p->plain.view.rows, 1000, seed);
  if (packbuf_select(&p->plain.view, 0, NULL, 0, rows.rows, &p->plain.back, &a, error) ||
      packbuf_select(&p->packed.view, 0, NULL, 0, rows.rows, &p->packed.back, &b, error) ||
      packbuf_select_ranges(&b, 1, 0, 0, &p->packed.back, &ranges, &count, error) ||
      selecting_fetch(&partial, p->packed.data, &p->packed.view, ranges, count, error) ||
      packbuf_select(&partial.view, 0, NULL, 0, rows.rows, &p->packed.back, &c, error))
    wrong = mv_error(error);
  for (uint64_t i = 0; i < count; i++) *fetched += ranges[i].length;
  for (uint32_t i = 0; !wrong && i < a.node_count; i++) {
    selecting_column x, y, z;
    selecting_copy(&a, a.nodes[i], (int)selecting_below(seed, 2), 64, 1u << 28, &x, error);
    selecting_copy(&b, b.nodes[i], x.into.ndims != NULL, 64, 1u << 28, &y, error);
    selecting_copy(&c, c.nodes[i], x.into.ndims != NULL, 64, 1u << 28, &z, error);
    wrong = selecting_same(&x, &y);
    if (!wrong) wrong = selecting_same(&x, &z);
    if (!wrong && is_ragged(a.view, a.nodes[i]) &&
        memcmp(x.into.offsets, y.into.offsets, (size_t)(x.size.items ? x.size.items : x.size.rows) * 8))
      wrong = "offsets";
    if (!wrong && !x.status) wrong = selecting_check_converted(&b, b.nodes[i], &y, converted);
    if (!wrong && !x.status) wrong = selecting_check_converted(&c, c.nodes[i], &z, converted);
    if (wrong) tap_note("node %u: %s (%d, %d, %d)", a.nodes[i], wrong, (int)x.status, (int)y.status, (int)z.status);
    selecting_column_free(&x), selecting_column_free(&y), selecting_column_free(&z);
  }
  if (wrong) tap_note("selection: %s", wrong);
  selecting_fetch_free(&partial);
  selecting_rows_free(&rows);
  return wrong == NULL;
}

/* The same bytes in `wanted` parts, from last to first. */
static int same_in_parts(pair *p, uint32_t wanted) {
  mv_trip *t = &p->packed;
  uint8_t *space = (uint8_t *)malloc((size_t)p->room);
  uint32_t parts = 0;
  uint64_t size = 0;
  int good = !packbuf_write_split(&t->batch, wanted, &parts, &t->error);
  memset(space, 0x5a, (size_t)p->room);
  for (uint32_t i = parts; good && i-- > 0;) good = !packbuf_write_part(&t->batch, i, space, p->room, &t->error);
  good = good && !packbuf_write_finish(&t->batch, space, p->room, &size, &t->error) && size == t->size;
  good = good && memcmp(space, t->data, (size_t)t->size) == 0;
  if (!good) tap_note("%u parts: %s", wanted, mv_error(&t->error));
  free(space);
  return good;
}

/* The end of parts that were not all written, or were closed before, is refused. */
static void test_parts_misused(void) {
  enum { N = 300000 };
  static int32_t ids[N];
  uint64_t shape[1] = {N}, room = 0, size = 0;
  packbuf_options options = packbuf_default_options();
  packbuf_tensor tensor;
  uint32_t parts = 0;
  uint8_t *one, *other;
  mv_trip t;
  int good, refused;
  for (unsigned i = 0; i < N; i++) ids[i] = (int32_t)mv_below(1000);
  memset(&tensor, 0, sizeof tensor);
  tensor.data = ids, tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32), tensor.rank = 1, tensor.shape = shape;
  options.packing = PACKBUF_PACKING_BALANCED;
  memset(&t, 0, sizeof t);
  mv_trip_begin(&t, N, &options);
  good = !packbuf_add_tensor(&t.batch, "x", &tensor, NULL, &t.error) && !packbuf_measure(&t.batch, &room, &t.error) &&
         !packbuf_write_split(&t.batch, 2, &parts, &t.error) && parts == 2;
  one = (uint8_t *)malloc((size_t)room), other = (uint8_t *)malloc((size_t)room);
  good = good && !packbuf_write(&t.batch, other, room, &size, &t.error);
  good = good && !packbuf_write_part(&t.batch, 1, one, room, &t.error);
  refused = packbuf_write_finish(&t.batch, one, room, &size, &t.error) == PACKBUF_INVALID_ARGUMENT;
  good = good && !packbuf_write_part(&t.batch, 0, one, room, &t.error) &&
         !packbuf_write_part(&t.batch, 1, one, room, &t.error);
  good = good && !packbuf_write_finish(&t.batch, one, room, &size, &t.error) && memcmp(one, other, (size_t)size) == 0;
  tap_ok(good && refused, "parts of which one was not written cannot be closed; a part may be written twice");
  refused = packbuf_write_finish(&t.batch, one, room, &size, &t.error) == PACKBUF_INVALID_ARGUMENT;
  tap_ok(refused && memcmp(one, other, (size_t)size) == 0,
         "nor can they be closed twice: INVALID_ARGUMENT, and nothing is lost");
  good = !packbuf_write_part(&t.batch, 0, one, room, &t.error) && !packbuf_write_part(&t.batch, 1, one, room, &t.error);
  good = good && !packbuf_write(&t.batch, other, room, &size, &t.error);
  refused = packbuf_write_finish(&t.batch, one, room, &size, &t.error) == PACKBUF_INVALID_ARGUMENT;
  tap_ok(good && refused, "nor after the batch was written whole");
  free(one), free(other);
  mv_trip_end(&t);
}

typedef struct target {
  uint8_t *bytes;
  uint64_t size, end;
} target;

static packbuf_status put(void *context, uint64_t offset, const void *bytes, size_t size) {
  target *t = (target *)context;
  if (offset > t->size || size > t->size - offset) return PACKBUF_OUT_OF_RANGE;
  memcpy(t->bytes + offset, bytes, size);
  if (offset + size > t->end) t->end = offset + size;
  return PACKBUF_OK;
}

static int same_through(pair *p, uint64_t window) {
  mv_trip *t = &p->packed;
  target to;
  int good;
  to.bytes = (uint8_t *)calloc(1, (size_t)p->room);
  to.size = p->room, to.end = 0;
  good = !packbuf_write_through(&t->batch, put, &to, window, &t->error) && to.end == t->size &&
         memcmp(to.bytes, t->data, (size_t)t->size) == 0;
  if (!good) tap_note("through a window of %llu: %s", (unsigned long long)window, mv_error(&t->error));
  free(to.bytes);
  return good;
}

static void test_random(unsigned batches) {
  unsigned done = 0, smaller = 0;
  uint64_t plain = 0, packed = 0, fetched = 0, seed = 7;
  unsigned converted = 0;
  int rows = 1, selections = 1, parts = 1, through = 1;
  for (; done < batches && rows && selections && parts && through; done++) {
    batches_pool pool = packable_pool();
    packbuf_options options = packbuf_default_options();
    pair p;
    options.data_checksums = (uint8_t)(mv_below(4) != 0);
    options.alignment_exponent = (uint8_t)(mv_below(3) ? 6 : 6 + mv_below(7));
    options.row_sharing = (uint8_t)mv_below(2);
    options.packing = (uint8_t)(PACKBUF_PACKING_BALANCED + mv_below(3));
    rows = fill_pair(&p, &pool, 1 + mv_below(done % 5 ? 300 : 2500), 1 + mv_below(6), &options);
    rows = rows && same_rows(&p);
    for (unsigned i = 0; rows && selections && i < 4; i++) selections = same_selection(&p, &seed, &fetched, &converted);
    parts = rows && same_in_parts(&p, 1) && same_in_parts(&p, 2) && same_in_parts(&p, 1 + mv_below(40));
    through = rows && same_through(&p, 0) && same_through(&p, 1) && same_through(&p, 4096 + mv_below(300000));
    plain += p.plain.size, packed += p.packed.size, smaller += p.packed.size < p.plain.size;
    end_pair(&p);
    mv_free();
  }
  tap_ok(rows, "%u random batches, packed, read back as they were; %llu bytes plain, %llu packed", done,
         (unsigned long long)plain, (unsigned long long)packed);
  tap_ok(smaller > done / 2, "%u of them became smaller", smaller);
  tap_ok(selections,
         "their selections, copied out whole and from the %llu bytes that they ask for, are those of the plain ones",
         (unsigned long long)fetched);
  tap_ok(converted > 100, "%u of them as other integers too", converted);
  tap_ok(parts, "in parts, written from last to first, they have the same bytes");
  tap_ok(through, "and through a callback");
}

/* ---- one column ---- */

typedef struct column {
  mv_trip trip;
  uint64_t room;
  packbuf_buffer data;
} column;

static int write_column(pair *p, const packbuf_tensor *tensor, const packbuf_options *options, packbuf_buffer *data) {
  packbuf_node node;
  memset(p, 0, sizeof *p);
  mv_trip_begin(&p->packed, tensor->shape[0], options);
  return !packbuf_add_tensor(&p->packed.batch, "x", tensor, NULL, &p->packed.error) && pack_bounded(p) &&
         !packbuf_get_node(&p->packed.view, 0, &node, NULL) &&
         !packbuf_get_buffer(&p->packed.view, &node, PACKBUF_ROLE_DATA, 0, data, NULL);
}

/* What a packed column answers, and a field's own packing. */
static void test_column(void) {
  enum { N = 300000 };
  static int64_t ids[N], back[N];
  packbuf_options options = packbuf_default_options();
  packbuf_schema schema;
  uint64_t shape[1] = {N};
  packbuf_tensor tensor = array_of(ids, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
  packbuf_scatter scatter;
  packbuf_buffer data;
  const void *elements;
  pair p;
  int good = 1;
  for (unsigned i = 0; i < N; i++) ids[i] = mv_below(mv_below(2) ? 1000 : 150000);
  options.packing = PACKBUF_PACKING_BALANCED;
  good = write_column(&p, &tensor, &options, &data);
  tap_ok(good && data.packing == 1 && p.packed.size * 3 < sizeof ids && p.packed.view.profile == 1,
         "300,000 token ids take %llu bytes", (unsigned long long)p.packed.size);
  tap_ok(packbuf_get_typed(&data, data.dtype, &elements, &p.packed.error) == PACKBUF_NOT_STORED,
         "they cannot be had in place: NOT_STORED");
  for (unsigned i = 0; i < 2000 && good; i++) {
    const uint64_t first = mv_below(N), count = mv_below(i % 10 ? 3000 : N) % (N - first + 1);
    memset(back, 1, (size_t)count * 8);
    good = !packbuf_copy_elements(&p.packed.view, &data, first, count, back, sizeof back, &p.packed.error) &&
           memcmp(back, ids + first, (size_t)count * 8) == 0;
  }
  tap_ok(good, "any run of them is copied out");
  memset(&scatter, 0, sizeof scatter);
  tap_ok(packbuf_scatter_measure(&p.packed.batch, &scatter, &p.packed.error) == PACKBUF_INVALID_ARGUMENT,
         "a packed batch is no list of segments: INVALID_ARGUMENT");
  mv_trip_end(&p.packed);
  memset(&schema, 0, sizeof schema);
  schema.path = "x";
  options.schemas = &schema, options.schema_count = 1;
  schema.flags = PACKBUF_KEEP_PLAIN;
  tap_ok(write_column(&p, &tensor, &options, &data) && data.packing == 0, "a field marked zero-copy stays plain");
  mv_trip_end(&p.packed);
  schema.flags = 0;
  schema.packing = PACKBUF_PACKING_NONE;
  tap_ok(write_column(&p, &tensor, &options, &data) && data.packing == 0, "and one whose own packing is NONE");
  mv_trip_end(&p.packed);
  options.packing = PACKBUF_PACKING_NONE;
  schema.packing = PACKBUF_PACKING_SMALLEST;
  tap_ok(write_column(&p, &tensor, &options, &data) && data.packing == 1 && p.packed.view.profile == 0,
         "a field's own packing packs it in a plain batch");
  mv_trip_end(&p.packed);
  schema.packing = 6;
  packbuf_arena_init(&p.packed.arena, NULL);
  tap_ok(packbuf_batch_init(&p.packed.batch, N, &p.packed.arena, &options, &p.packed.error) == PACKBUF_INVALID_ARGUMENT,
         "a packing that there is not: INVALID_ARGUMENT");
  schema.flags = PACKBUF_KEEP_PLAIN | PACKBUF_REFUSE_NULL;
  for (unsigned packing = PACKBUF_PACKING_DEFAULT; packing <= PACKBUF_PACKING_AUTO; packing++) {
    const packbuf_status want = packing > PACKBUF_PACKING_NONE ? PACKBUF_INVALID_ARGUMENT : PACKBUF_OK;
    schema.packing = (uint8_t)packing;
    tap_ok(packbuf_batch_init(&p.packed.batch, N, &p.packed.arena, &options, &p.packed.error) == want &&
               (want == PACKBUF_OK ||
                (strcmp(p.packed.error.path, "x") == 0 && strstr(p.packed.error.message, "KEEP_PLAIN"))),
           "kept plain, with packing %u: %s", packing, want ? "INVALID_ARGUMENT, x, and what to do" : "taken");
  }
  packbuf_arena_free(&p.packed.arena);
  for (unsigned i = 0; i < N; i++) ids[i] = (int64_t)mv_random();
  options.schema_count = 0;
  options.packing = PACKBUF_PACKING_SMALLEST;
  tap_ok(write_column(&p, &tensor, &options, &data) && data.packing == 0 && p.packed.size == p.room,
         "noise stays plain");
  mv_trip_end(&p.packed);
}

/* How a field's buffer is stored: packed or stored plain; in capitals as an alias. */
static char stored_as(const packbuf_view *view, const char *name, packbuf_role role) {
  packbuf_node node;
  packbuf_buffer b;
  if (packbuf_find(view, 0, name, &node, NULL) || packbuf_get_buffer(view, &node, role, 0, &b, NULL)) return '?';
  if (b.storage == PACKBUF_STORED) return b.packing ? 'p' : 's';
  return b.storage != PACKBUF_ALIAS ? '?' : b.packing ? 'P' : 'S';
}

/* A ragged field under each of these names, with equal bytes, and two of equal texts; then how their buffers are
 * stored, and whether those that must be readable in place are, on machines of that byte order. */
static void check_equal_fields(const char *const *names, const packbuf_options *options, const char *data,
                               const char *offsets) {
  enum { N = 400 };
  static int64_t numbers[8 * N], ends[N + 1];
  packbuf_text *texts = (packbuf_text *)mv_alloc(N * sizeof *texts);
  packbuf_selection all;
  packbuf_ragged ragged, in_place;
  char as[2][10];
  int good = 1, readable = 1;
  pair p;
  memset(&p, 0, sizeof p);
  memset(as, 0, sizeof as);
  memset(&ragged, 0, sizeof ragged);
  for (unsigned i = 0; i < 8 * N; i++) numbers[i] = mv_below(900);
  for (unsigned i = 0; i < N; i++)
    ends[i + 1] = ends[i] + mv_below(8), texts[i].data = (const char *)numbers + 11 * i, texts[i].size = i % 10;
  ragged.data = numbers, ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), ragged.items = 8 * N;
  ragged.offsets = ends, ragged.offset_bits = 64;
  mv_trip_begin(&p.packed, N, options);
  for (unsigned i = 0; i < 7 && good; i++)
    good = !packbuf_add_ragged(&p.packed.batch, names[i], &ragged, &p.packed.error);
  good = good && !packbuf_add_bytes(&p.packed.batch, "text", texts, &p.packed.error) &&
         !packbuf_add_bytes(&p.packed.batch, "none text", texts, &p.packed.error) && pack_bounded(&p) &&
         !packbuf_select(&p.packed.view, 0, NULL, 0, packbuf_rows_all(), &p.packed.back, &all, &p.packed.error);
  for (unsigned i = 0; good && i < 9; i++) {
    const char *name = i < 7 ? names[i] : i == 7 ? "text" : "none text";
    const int plain = name[0] == 'n' || name[0] == 'k';
    as[0][i] = stored_as(&p.packed.view, name, PACKBUF_ROLE_DATA);
    as[1][i] = stored_as(&p.packed.view, name, PACKBUF_ROLE_OFFSETS);
    readable = readable && (packbuf_select_ragged(&all, all.nodes[i], &in_place, &p.packed.error) == PACKBUF_OK) ==
                               (plain && !bytes_big_endian());
  }
  tap_ok(good && strcmp(as[0], data) == 0 && strcmp(as[1], offsets) == 0,
         "equal fields from %s on: data %s, offsets %s", names[0], as[0], as[1]);
  tap_ok(good && readable, "those that ask for it are readable in place, the others packed");
  mv_trip_end(&p.packed);
}

/* Which of equal fields are stored once: one that must be readable in place is no alias of what may be packed. */
static void test_equal_fields(void) {
  static const char *const forward[7] = {"a", "none", "b", "none2", "keep", "fastest", "c"},
                           *const backward[7] = {"c", "fastest", "keep", "none2", "b", "none", "a"};
  packbuf_options options = packbuf_default_options();
  packbuf_schema schemas[5];
  memset(schemas, 0, sizeof schemas);
  schemas[0].path = "none", schemas[1].path = "none2", schemas[2].path = "none text";
  for (unsigned i = 0; i < 3; i++) schemas[i].packing = PACKBUF_PACKING_NONE;
  schemas[3].path = "keep", schemas[3].flags = PACKBUF_KEEP_PLAIN;
  schemas[4].path = "fastest", schemas[4].packing = PACKBUF_PACKING_FASTEST;
  options.packing = PACKBUF_PACKING_BALANCED;
  options.schemas = schemas, options.schema_count = 5;
  check_equal_fields(forward, &options, "psPSsPPsS", "psPSSPPps");
  check_equal_fields(backward, &options, "pPsSPSPsS", "pPsSPSPps");
}

/* The speed of a link names a packing, whose profile the head has and whose bytes are written; a packing that is asked
 * for counts more. */
static void test_link(void) {
  static const struct {
    uint32_t gbits;
    packbuf_packing packing;
  } speeds[] = {{0, PACKBUF_PACKING_BALANCED},  {1, PACKBUF_PACKING_SMALLEST},     {2, PACKBUF_PACKING_BALANCED},
                {10, PACKBUF_PACKING_BALANCED}, {25, PACKBUF_PACKING_BALANCED},    {99, PACKBUF_PACKING_BALANCED},
                {100, PACKBUF_PACKING_FASTEST}, {199, PACKBUF_PACKING_FASTEST},    {200, PACKBUF_PACKING_NONE},
                {400, PACKBUF_PACKING_NONE},    {UINT32_MAX, PACKBUF_PACKING_NONE}};
  enum { N = 5000 };
  static int64_t ids[N];
  uint64_t shape[1] = {N};
  packbuf_tensor tensor = array_of(ids, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
  packbuf_options options = packbuf_default_options();
  packbuf_schema schema;
  packbuf_buffer data;
  pair p, asked;
  int good = 1;
  memset(&schema, 0, sizeof schema);
  schema.path = "x";
  for (unsigned i = 0; i < N; i++) ids[i] = mv_below(9) ? mv_below(1000) : mv_below(150000);
  for (unsigned i = 0; i < sizeof speeds / sizeof speeds[0]; i++)
    good = good && packbuf_packing_for_link(speeds[i].gbits) == speeds[i].packing;
  tap_ok(good, "the packing for a link of 0 to 2^32 - 1 Gb/s");
  for (unsigned i = 0; i < sizeof speeds / sizeof speeds[0] && good; i++) {
    for (unsigned by = 0; by < 3 && good; by++) { /* by DEFAULT, by AUTO, of a field alone */
      packbuf_packing packing = by || speeds[i].gbits ? speeds[i].packing : PACKBUF_PACKING_NONE;
      options = packbuf_default_options();
      options.packing = (uint8_t)(by == 2 ? PACKBUF_PACKING_NONE : packing);
      schema.packing = (uint8_t)(by == 2 ? packing : PACKBUF_PACKING_DEFAULT);
      options.schemas = &schema, options.schema_count = 1;
      good = write_column(&asked, &tensor, &options, &data) && data.packing == (packing != PACKBUF_PACKING_NONE);
      options.packing = (uint8_t)(by == 2   ? PACKBUF_PACKING_NONE
                                  : by == 1 ? PACKBUF_PACKING_AUTO
                                            : PACKBUF_PACKING_DEFAULT);
      schema.packing = (uint8_t)(by == 2 ? PACKBUF_PACKING_AUTO : PACKBUF_PACKING_DEFAULT);
      options.link_gbits = speeds[i].gbits;
      good = good && write_column(&p, &tensor, &options, &data) && p.packed.size == asked.packed.size &&
             p.room == asked.room && memcmp(p.packed.data, asked.packed.data, (size_t)p.packed.size) == 0 &&
             p.packed.view.profile == (by == 2 ? 0 : (unsigned)packing - PACKBUF_PACKING_NONE);
      if (!good) tap_note("%lu Gb/s, way %u", (unsigned long)speeds[i].gbits, by);
      mv_trip_end(&p.packed);
      mv_trip_end(&asked.packed);
    }
  }
  tap_ok(good, "a batch, and a field, for a link is what that packing writes");
  options = packbuf_default_options();
  options.link_gbits = 400;
  options.packing = PACKBUF_PACKING_SMALLEST;
  tap_ok(write_column(&p, &tensor, &options, &data) && data.packing == 1 && p.packed.view.profile == 3,
         "a packing that is asked for counts more than the link");
  mv_trip_end(&p.packed);
}

/* int64 as other integers: all that fit, none that does not, packed or plain. */
static void test_convert(void) {
  enum { N = 20000 };
  static int64_t numbers[N];
  static uint8_t out[N * 8];
  packbuf_options options = packbuf_default_options();
  uint64_t shape[1] = {N};
  const packbuf_tensor tensor = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
  packbuf_buffer data;
  pair p;
  for (unsigned packing = PACKBUF_PACKING_NONE; packing <= PACKBUF_PACKING_BALANCED; packing++) {
    int good = 1;
    options.packing = (uint8_t)packing;
    for (unsigned i = 0; i < N; i++) numbers[i] = mv_below(100);
    good = write_column(&p, &tensor, &options, &data) && data.packing == packing - 1;
    for (unsigned bits = 8; bits <= 64; bits *= 2)
      for (unsigned code = PACKBUF_DTYPE_INT; code <= PACKBUF_DTYPE_UINT; code++) {
        const uint64_t first = mv_below(N), count = N - first;
        good = good && !packbuf_convert_elements(&p.packed.view, &data, first, count, packbuf_dtype_of(code, bits), out,
                                                 count * bits / 8, &p.packed.error);
        for (uint64_t i = 0; good && i < count; i++) {
          uint64_t value = 0;
          for (unsigned k = 0; k < bits / 8; k++)
            value |= (uint64_t)out[i * (bits / 8) + (bytes_big_endian() ? bits / 8 - 1 - k : k)] << 8 * k;
          good = value == (uint64_t)numbers[first + i];
        }
      }
    tap_ok(good, "int64, packing %u, as integers of 8 to 64 bits", packing);
    mv_trip_end(&p.packed);
    numbers[777] = 300, numbers[7000] = -1;
    tap_ok(write_column(&p, &tensor, &options, &data) &&
               packbuf_convert_elements(&p.packed.view, &data, 0, N, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8), out,
                                        sizeof out, &p.packed.error) == PACKBUF_LOSSY &&
               packbuf_convert_elements(&p.packed.view, &data, 0, 7001, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 32), out,
                                        sizeof out, &p.packed.error) == PACKBUF_LOSSY &&
               !packbuf_convert_elements(&p.packed.view, &data, 0, 7000, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 32), out,
                                         sizeof out, &p.packed.error) &&
               packbuf_convert_elements(&p.packed.view, &data, 0, N, packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32), out,
                                        sizeof out, &p.packed.error) == PACKBUF_WRONG_TYPE &&
               packbuf_convert_elements(&p.packed.view, &data, 0, N, packbuf_dtype_of(PACKBUF_DTYPE_INT, 16), out,
                                        N * 2 - 1, &p.packed.error) == PACKBUF_CAPACITY &&
               p.packed.error.needed == N * 2,
           "what does not fit is LOSSY, floats WRONG_TYPE, a small destination CAPACITY");
    mv_trip_end(&p.packed);
  }
}

/* Large enough for non-temporal stores, with a tail. */
static void test_large(void) {
  const uint64_t n = (UINT64_C(40) << 20) / 8 + 77;
  int64_t *numbers = (int64_t *)calloc((size_t)n, 8), *back = (int64_t *)malloc((size_t)n * 8 + 64);
  packbuf_options options = packbuf_default_options();
  packbuf_buffer data;
  const packbuf_tensor tensor = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), &n);
  pair p;
  for (uint64_t i = 0; i < n; i++) numbers[i] = (int64_t)(i % 10007 * 13 + (i >> 12));
  options.packing = PACKBUF_PACKING_BALANCED;
  tap_ok(write_column(&p, &tensor, &options, &data) && data.packing == 1, "40 MiB are packed past the caches");
  tap_ok(!packbuf_copy_elements(&p.packed.view, &data, 0, n, back, n * 8, &p.packed.error) &&
             memcmp(back, numbers, (size_t)n * 8) == 0,
         "and unpacked");
  tap_ok(!packbuf_copy_elements(&p.packed.view, &data, 1, n - 1, (uint8_t *)back + 1, n * 8, &p.packed.error) &&
             memcmp((uint8_t *)back + 1, numbers + 1, (size_t)n * 8 - 8) == 0,
         "to any address");
  tap_ok(same_in_parts(&p, 3), "and packed in parts");
  mv_trip_end(&p.packed);
  free(numbers);
  free(back);
}

/* A byte of payload or header that is wrong gives an error or a value, and the checksum or a rule finds it. */
static void test_broken(void) {
  enum { N = 20000 };
  static int64_t numbers[N], back[N];
  packbuf_options options = packbuf_default_options();
  uint64_t shape[1] = {N};
  const packbuf_tensor tensor = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
  packbuf_buffer data;
  unsigned found = 0, tried = 0, named = 0;
  pair p;
  for (unsigned i = 0; i < N; i++) numbers[i] = i % 3000 < 1000 ? 5 : mv_below(60000);
  options.packing = PACKBUF_PACKING_SMALLEST;
  options.data_checksums = 0;
  tap_ok(write_column(&p, &tensor, &options, &data) && data.packing == 1, "20,000 numbers in blocks of several modes");
  for (uint64_t at = data.headers_at; at < data.headers_at + 16 * 20; at++) {
    uint8_t *byte = p.packed.data + at;
    packbuf_error error;
    *byte ^= 0x81;
    tried++;
    found += packbuf_verify(&p.packed.view, PACKBUF_LEVEL_INDEX, &error) != PACKBUF_OK;
    if (packbuf_copy_elements(&p.packed.view, &data, 0, N, back, sizeof back, &error))
      named += error.rule == PACKBUF_RULE_I15 || error.rule == PACKBUF_RULE_I16 || error.rule == PACKBUF_RULE_D10;
    *byte ^= 0x81;
  }
  tap_ok(found == tried && named > tried / 8,
         "%u wrong bytes in block headers: all found by verification, %u refused by name when they are read", tried,
         named);
  mv_trip_end(&p.packed);
}

/* A packed mask or offsets that are broken are refused when the column is opened or read, not taken as absent cells. */
static void test_broken_index(void) {
  enum { ROWS = 4000 };
  static uint8_t bitmap[ROWS / 8];
  static int64_t numbers[ROWS];
  uint64_t shape[1] = {ROWS};
  const packbuf_tensor tensor = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
  packbuf_options options = packbuf_default_options();
  packbuf_column opened;
  packbuf_node node;
  packbuf_buffer mask;
  pair p;
  int good;
  for (unsigned i = 0; i < sizeof bitmap; i++) bitmap[i] = i % 100 < 50 ? 0xFF : 0x0F;
  for (unsigned i = 0; i < ROWS; i++) numbers[i] = mv_below(100);
  options.packing = PACKBUF_PACKING_BALANCED;
  memset(&p, 0, sizeof p);
  mv_trip_begin(&p.packed, ROWS, &options);
  good = !packbuf_add_tensor(&p.packed.batch, "x", &tensor, bitmap, &p.packed.error) && pack_bounded(&p) &&
         !packbuf_get_node(&p.packed.view, 0, &node, NULL) &&
         !packbuf_get_buffer(&p.packed.view, &node, PACKBUF_ROLE_VALIDITY, 0, &mask, NULL) && mask.packing == 1 &&
         !packbuf_open_column(&p.packed.view, 0, &opened, NULL);
  tap_ok(good, "a packed validity mask");
  for (unsigned at = 8; good && at < 13; at++) { /* place and mode; what else there is may be sound */
    p.packed.data[mask.headers_at + at] ^= 0x90;
    good = packbuf_open_column(&p.packed.view, 0, &opened, &p.packed.error) == PACKBUF_BAD_BLOCK;
    p.packed.data[mask.headers_at + at] ^= 0x90;
  }
  tap_ok(good, "broken, it is refused: BAD_BLOCK");
  mv_trip_end(&p.packed);
}

static int list_buffer(const packbuf_view *view, uint32_t index, packbuf_role role, packbuf_buffer *buffer) {
  packbuf_node node;
  return !packbuf_get_node(view, index, &node, NULL) && !packbuf_get_buffer(view, &node, role, 0, buffer, NULL) &&
         buffer->packing == 1;
}

/* A list of which the second half of the rows lack item 1, with packed lengths and masks. */
static void test_list_masks(void) {
  enum { N = 65536 };
  packbuf_value *rows = (packbuf_value *)malloc(N * sizeof *rows), items[2];
  packbuf_options options = packbuf_default_options();
  packbuf_buffer lengths, missing;
  packbuf_view view;
  packbuf_entry entry;
  pair p;
  uint32_t item = 3;
  int good;
  memset(&p, 0, sizeof p);
  entry.key = packbuf_string("a"), entry.value = packbuf_int(1);
  items[0] = items[1] = packbuf_dict(&entry, 1);
  for (unsigned i = 0; i < N; i++) rows[i] = packbuf_list(items, i < N / 2 ? 2 : 1);
  options.packing = PACKBUF_PACKING_SMALLEST;
  mv_trip_begin(&p.packed, N, &options);
  good = !packbuf_add_values(&p.packed.batch, "x", rows, &p.packed.error) && pack_bounded(&p);
  good = good && list_buffer(&p.packed.view, 0, PACKBUF_ROLE_LENGTHS, &lengths) &&
         list_buffer(&p.packed.view, item, PACKBUF_ROLE_MISSING, &missing);
  tap_ok(good, "a list of 65,536 rows has packed lengths and a packed mask of what is missing");
  if (good) {
    packbuf_limits limits = packbuf_default_limits();
    packbuf_error error;
    limits.decoded_bytes = 0;
    for (uint32_t i = 0; i < p.packed.view.buffer_count; i++) {
      packbuf_buffer b;
      if (!packbuf_get_buffer_at(&p.packed.view, i, &b, NULL) && b.role != PACKBUF_ROLE_DATA && b.packing)
        limits.decoded_bytes += (b.count * b.dtype.bits + 7) / 8;
    }
    good = !packbuf_open(&view, p.packed.data, p.packed.size, 0, &limits, &error) &&
           packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error) == PACKBUF_LIMIT && error.rule == PACKBUF_RULE_D9;
    limits.decoded_bytes += 2 * N * 8 + 2 * N / 8 - 1;
    good = good && !packbuf_open(&view, p.packed.data, p.packed.size, 0, &limits, &error) &&
           packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error) == PACKBUF_LIMIT;
    limits.decoded_bytes++;
    good = good && !packbuf_open(&view, p.packed.data, p.packed.size, 0, &limits, &error) &&
           !packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error);
    tap_ok(good, "verification charges what is packed of a list or dict once more for each child");
    /* all lengths 2, though the mask says that the second half lacks item 1 */
    for (uint64_t k = 0; k < N / 1024; k++) {
      packbuf_block block;
      good = good && !packbuf_get_block(&lengths, k, &block, &error) && block.mode == PACKBUF_BLOCK_LINE &&
             block.length == 0;
      if (k >= N / 2048) bytes_store64(p.packed.data + lengths.headers_at + k * 16, 2);
    }
    seal_all(p.packed.data, p.packed.size);
    good = good && !packbuf_open(&view, p.packed.data, p.packed.size, 0, NULL, &error);
    tap_ok(
        good && packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error) == PACKBUF_BAD_MASK && error.rule == PACKBUF_RULE_I6,
        "a packed mask that contradicts the lengths breaks I6");
  }
  free(rows);
  mv_trip_end(&p.packed);
}

static void test_no_memory(void) {
  enum { N = 5000 };
  static int64_t numbers[N];
  uint64_t shape[1] = {N};
  uint32_t offsets[101];
  const packbuf_tensor tensor = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
  packbuf_ragged ragged;
  unsigned at = 0, refused = 0;
  for (unsigned i = 0; i < N; i++) numbers[i] = mv_below(1000);
  for (unsigned i = 0; i < 101; i++) offsets[i] = i * 49 + i % 7;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = numbers, ragged.dtype = tensor.dtype, ragged.items = N, ragged.offsets = offsets,
  ragged.offset_bits = 32;
  for (;; at++) {
    failing f = failing_at(at, 0);
    packbuf_allocator allocator = failing_allocator(&f);
    packbuf_options options = packbuf_default_options();
    packbuf_arena arena;
    packbuf_batch batch;
    packbuf_error error;
    void *data;
    uint64_t size;
    packbuf_status status;
    packbuf_arena_init(&arena, &allocator);
    options.packing = PACKBUF_PACKING_BALANCED;
    status = packbuf_batch_init(&batch, 100, &arena, &options, &error);
    if (!status) status = packbuf_add_ragged(&batch, "x", &ragged, &error);
    if (!status) status = packbuf_pack(&batch, &data, &size, &error);
    packbuf_arena_free(&arena);
    if (!status) break;
    refused += status == PACKBUF_OUT_OF_MEMORY;
  }
  tap_ok(at > 3 && refused == at, "each of %u allocations may fail: OUT_OF_MEMORY", at);
}

/* An allocator that counts the bytes it has handed out; shrinking moves (to another alignment), or is refused. */
typedef struct counting {
  size_t held;
  unsigned shrunk;
  enum { IN_PLACE, MOVES, REFUSES } how;
} counting;

static void *counting_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  counting *c = (counting *)context;
  uint8_t *old = (uint8_t *)memory, *grown;
  if (old && new_size && new_size < old_size) {
    c->shrunk++;
    if (c->how == REFUSES) return NULL;
  }
  c->held += new_size - old_size;
  if (old && !new_size) {
    free(old - old[-1]);
    return NULL;
  }
  grown = (uint8_t *)malloc(new_size + 32) + 16; /* what is before it says how far behind the start it is */
  if (c->how == MOVES && old && old[-1] == 16) grown += 16;
  grown[-1] = c->how == MOVES && old && old[-1] == 16 ? 32 : 16;
  if (!old) return grown;
  memcpy(grown, old, old_size < new_size ? old_size : new_size);
  free(old - old[-1]);
  return grown;
}

/* What packing leaves of the room is the arena's again, or the allocator's. */
static void test_room_given_back(void) {
  static int64_t numbers[200000];
  static uint8_t fixed[400000];
  const char *const ways[4] = {"", ", which moves", ", which does not", ", which is fixed"};
  for (unsigned i = 0; i < 200000; i++) numbers[i] = mv_below(mv_below(9) ? 100 : 100000);
  for (unsigned i = 0; i < 4 * 3 * 2; i++) {
    const unsigned way = i % 4, exponent = i / 4 % 3 * 3 + 6;
    const uint64_t shape[1] = {i / 12 && way < 3 ? 200000 : 3000};
    const packbuf_tensor tensor = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
    const uint64_t alignment = (uint64_t)1 << exponent, slack = 2 * alignment;
    const int own = shape[0] > 3000; /* a block of the arena */
    counting c = {0, 0, way == 1 ? MOVES : way == 2 ? REFUSES : IN_PLACE};
    packbuf_allocator allocator;
    packbuf_options options = packbuf_default_options();
    packbuf_arena arena;
    packbuf_batch batch;
    packbuf_error error;
    packbuf_view view;
    packbuf_buffer data;
    packbuf_node node;
    uint64_t used = 0, room = 0, size = 0;
    size_t held = 0;
    void *packed = NULL;
    int64_t *back = (int64_t *)mv_alloc(sizeof numbers);
    int good;
    allocator.resize = counting_resize, allocator.context = &c;
    if (way == 3) packbuf_arena_init_fixed(&arena, fixed, sizeof fixed);
    else packbuf_arena_init(&arena, &allocator);
    if (!own && way < 3) (void)packbuf_arena_alloc(&arena, 100000, 8); /* the next blocks are larger still */
    options.packing = PACKBUF_PACKING_BALANCED;
    options.alignment_exponent = (uint8_t)exponent;
    good = !packbuf_batch_init(&batch, shape[0], &arena, &options, &error) &&
           !packbuf_add_tensor(&batch, "x", &tensor, NULL, &error) && !packbuf_measure(&batch, &room, &error);
    used = arena.used, held = c.held;
    good = good && !packbuf_pack(&batch, &packed, &size, &error) && 2 * size < room + 4 * alignment &&
           (uintptr_t)packed % alignment == 0;
    good = good && (way == 2 && own ? arena.used >= used + room
                                    : arena.used >= used + size && arena.used <= used + size + slack);
    good =
        good && (way == 3 || (own ? c.shrunk == 1 && (way == 2 ? c.held >= held + room : c.held <= held + size + slack)
                                  : c.shrunk == 0));
    good = good && !packbuf_open(&view, packed, size, PACKBUF_OPEN_EXACT, NULL, &error) &&
           !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) && !packbuf_get_node(&view, 0, &node, &error) &&
           !packbuf_get_buffer(&view, &node, PACKBUF_ROLE_DATA, 0, &data, &error) && data.packing == 1 &&
           !packbuf_copy_elements(&view, &data, 0, shape[0], back, sizeof numbers, &error) &&
           memcmp(back, numbers, (size_t)shape[0] * 8) == 0;
    packbuf_arena_free(&arena);
    tap_ok(good && c.held == 0, "%lu of %lu bytes are kept of the arena, alignment %lu%s", (unsigned long)size,
           (unsigned long)room, (unsigned long)alignment, ways[way]);
  }
}

int main(void) {
  const char *seed = getenv("PACKED_SEED");
  if (seed) mv_seed ^= strtoull(seed, NULL, 0) * 0x9E3779B97F4A7C15u;
  test_column();
  test_equal_fields();
  test_link();
  test_convert();
  test_broken();
  test_broken_index();
  test_list_masks();
  test_parts_misused();
  test_no_memory();
  test_room_given_back();
  test_random(40);
  test_large();
  return tap_plan_done();
}
