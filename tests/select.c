/* tests/select.c: selections: rows and patterns, columns in place and copied out, values, ranges of bytes, partial
 * views. Random selections of random batches and of the valid vectors are compared with what the calls for single cells
 * say; pages and bytes outside the ranges are taken away.
 * May use: packbuf.h, selecting.h, failing.h, sealing.h, values.h, tap.h, the valid vectors.
 * Must not know: how a selection is kept. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../packbuf.h"
#include "failing.h"
#include "sealing.h"
#include "selecting.h"
#include "tap.h"
#include "values.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST = 1 << 22 };

static packbuf_error error;
static packbuf_arena arena;
static char wrong_text[1024];

static const char *line(void) {
  static char text[512];
  packbuf_error_format(&error, text, sizeof text);
  return text;
}

static int wrong(const char *what, const char *where, const char *which) {
  snprintf(wrong_text, sizeof wrong_text, "%s: %s (%s)", where, what, which);
  return 0;
}

/* ---- batches ---- */

typedef struct batch {
  uint8_t *data;
  uint64_t size;
  packbuf_view view;
  packbuf_arena arena;
} batch;

/* One value of a column, by the column's kind. */
static packbuf_value any_value(packbuf_arena *a, unsigned column, uint64_t row, uint64_t *seed) {
  char text[400];
  const unsigned n = (unsigned)selecting_below(seed, 7);
  static const char *const mixed[] = {"1",    "\"one\"", "[1, \"two\", None]", "{\"k\": [True]}", "0.5",
                                      "None", "Missing"};
  static const char *const blobs[] = {"b\"\"", "b\"a\"", "{\"k\": b\"xyz\"}", "3", "None", "\"t\"", "Missing"};
  static const char *const pictures[] = {"media:image/png", "media", "None", "media:image/jpeg",
                                         "media",           "None",  "media"};
  static const char *const galleries[] = {
      "[]", "[media]", "[media:image/png, media, b\"raw\"]", "None", "[b\"\", media]", "[media]", "Missing"};
  static const char *const tensors[] = {"tensor:int16(2,3)",
                                        "tensor:int16(1,0)",
                                        "tensor:int16(4,1)",
                                        "None",
                                        "tensor:int16(1,5)",
                                        "tensor:int16(3,3)",
                                        "None"};
  static const char *const anyrank[] = {"array:float32(2,3)",   "array:float32()", "array:float32(7)", "None",
                                        "array:float32(1,2,3)", "[1.5, 2.5]",      "Missing"};
  switch (column) {
    case 0: snprintf(text, sizeof text, "%d", (int)row * 3); break;
    case 1: snprintf(text, sizeof text, n == 0 ? "None" : n == 1 ? "Missing" : "%u.25", (unsigned)row); break;
    case 2:
      snprintf(text, sizeof text, n == 0 ? "None" : "\"text %u %.*s\"", (unsigned)row, (int)(n * 5),
               "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop");
      break;
    case 3: snprintf(text, sizeof text, "%s", mixed[n]); break;
    case 4: snprintf(text, sizeof text, "%s", blobs[n]); break;
    case 5: snprintf(text, sizeof text, "%s", pictures[n]); break;
    case 6: snprintf(text, sizeof text, "%s", galleries[n]); break;
    case 7: snprintf(text, sizeof text, "%s", tensors[n]); break;
    case 8: snprintf(text, sizeof text, "%s", anyrank[n]); break;
    case 9:
      snprintf(text, sizeof text,
               n == 0   ? "None"
               : n == 1 ? "Missing"
                        : "{\"step\": %u, \"tag\": %s, \"deep\": {\"x\": %u.5, \"y\": [1]}}",
               (unsigned)row,
               n == 2   ? "None"
               : n == 3 ? "Missing"
                        : "\"t\"",
               (unsigned)(row * row % 1000));
      break;
    case 10:
      snprintf(text, sizeof text,
               n == 0   ? "None"
               : n == 1 ? "[]"
               : n < 4  ? "[{\"name\": \"a%u\", \"args\": [1]}]"
                        : "[{\"name\": \"b%u\"}, {\"name\": None, \"args\": [1, 2]}, {\"name\": \"c\"}]",
               (unsigned)row);
      break;
    case 11: snprintf(text, sizeof text, "None"); break;
    case 12: snprintf(text, sizeof text, "7"); break;
    case 13: snprintf(text, sizeof text, n < 3 ? "True" : n < 5 ? "[%u, 2, 3]" : "[]", (unsigned)row); break;
    case 14: snprintf(text, sizeof text, n == 0 ? "None" : "opaque:pickle"); break;
    default: snprintf(text, sizeof text, n < 2 ? "%u" : "%u.5", (unsigned)row); break;
  }
  return values_of(text, a);
}

static const char *const column_names[] = {"seq",     "score",   "text",   "mixed",      "blob.dots", "picture",
                                           "gallery", "tensors", "arrays", "meta",       "calls",     "none",
                                           "same",    "lists",   "opaque", "old_numbers"};
enum { COLUMNS = 16 };

static void open_batch(batch *b, const void *data) {
  b->data = (uint8_t *)aligned_alloc(4096, (size_t)((b->size + 4095) & ~(uint64_t)4095));
  memcpy(b->data, data, (size_t)b->size);
  if (packbuf_open(&b->view, b->data, b->size, 0, NULL, &error) || packbuf_verify(&b->view, PACKBUF_LEVEL_FULL, &error))
    exit(printf("Bail out! %s\n", line()));
}

static void make_batch(batch *b, uint64_t rows, uint64_t seed, unsigned alignment) {
  packbuf_batch out;
  packbuf_options options = packbuf_default_options();
  packbuf_tensor dense;
  packbuf_ragged ragged;
  uint64_t shape[2], *offsets;
  int32_t *numbers;
  int16_t *items;
  void *data;
  packbuf_value value;
  packbuf_arena_init(&b->arena, NULL);
  options.alignment_exponent = alignment == 64 ? 6 : 12;
  if (packbuf_batch_init(&out, rows, &b->arena, &options, &error)) exit(printf("Bail out! %s\n", line()));
  numbers = (int32_t *)packbuf_arena_alloc(&b->arena, (size_t)rows * 12 + 1, 64);
  offsets = (uint64_t *)packbuf_arena_alloc(&b->arena, (size_t)rows * 8 + 8, 64);
  items = (int16_t *)packbuf_arena_alloc(&b->arena, (size_t)rows * 100 + 1, 64);
  offsets[0] = 0;
  for (uint64_t i = 0; i < rows * 50; i++) items[i] = (int16_t)selecting_random(&seed);
  for (uint64_t i = 0; i < rows * 3; i++) numbers[i] = (int32_t)selecting_random(&seed);
  for (uint64_t i = 0; i < rows; i++) offsets[i + 1] = offsets[i] + selecting_below(&seed, 50);
  memset(&dense, 0, sizeof dense);
  dense.data = numbers, dense.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32), dense.rank = 2, dense.shape = shape;
  shape[0] = rows, shape[1] = 3;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = items, ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 16), ragged.offset_bits = 64;
  ragged.items = rows * 50, ragged.offsets = offsets;
  if (packbuf_add_tensor(&out, "dense", &dense, NULL, &error) || packbuf_add_ragged(&out, "ragged", &ragged, &error))
    exit(printf("Bail out! %s\n", line()));
  for (unsigned c = 0; c < COLUMNS; c++) {
    packbuf_value *values = (packbuf_value *)packbuf_arena_alloc(&b->arena, (size_t)(rows + 1) * sizeof *values, 16);
    for (uint64_t i = 0; i < rows; i++) values[i] = any_value(&b->arena, c, i, &seed);
    if (packbuf_add_values(&out, column_names[c], values, &error)) exit(printf("Bail out! %s\n", line()));
  }
  value = values_of("{\"name\": \"the batch\", \"sizes\": [1, 2, 3], \"picture\": media:image/png}", &b->arena);
  if (packbuf_add_batch_value(&out, "about", &value, &error) || packbuf_pack(&out, &data, &b->size, &error))
    exit(printf("Bail out! %s\n", line()));
  open_batch(b, data);
}

/* Rows in groups of 8 that are equal, or have long common prefixes: stored rows that are shared. */
static void make_shared(batch *b, uint64_t seed) {
  enum { ROWS = 256, LONG = 120 };
  static const char *const names[] = {"text", "tensors", "gallery", "picture"};
  packbuf_batch out;
  packbuf_tensor dense;
  packbuf_ragged ragged;
  uint64_t shape[2] = {ROWS, 64}, *offsets;
  int64_t *numbers;
  uint8_t *mask;
  void *data;
  packbuf_arena_init(&b->arena, NULL);
  if (packbuf_batch_init(&out, ROWS, &b->arena, NULL, &error)) exit(printf("Bail out! %s\n", line()));
  numbers = (int64_t *)packbuf_arena_alloc(&b->arena, ROWS * LONG * 8, 64);
  offsets = (uint64_t *)packbuf_arena_alloc(&b->arena, ROWS * 8 + 8, 64);
  mask = (uint8_t *)packbuf_arena_alloc(&b->arena, ROWS / 8, 64);
  for (unsigned i = 0; i < ROWS / 8; i++) mask[i] = (uint8_t)(selecting_random(&seed) | selecting_random(&seed));
  for (unsigned i = 0; i < ROWS * LONG; i++) numbers[i] = (int64_t)(i / LONG / 8 * 1000 + i % LONG * (i % LONG));
  memset(&dense, 0, sizeof dense);
  dense.data = numbers, dense.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), dense.rank = 2, dense.shape = shape;
  {
    int64_t *strides = (int64_t *)packbuf_arena_alloc(&b->arena, 16, 8);
    strides[0] = LONG * 8, strides[1] = 8;
    dense.strides = strides;
  }
  memset(&ragged, 0, sizeof ragged);
  ragged.data = numbers, ragged.dtype = dense.dtype, ragged.offset_bits = 64, ragged.items = ROWS * LONG,
  ragged.offsets = offsets;
  for (unsigned i = 0; i <= ROWS; i++) offsets[i] = (uint64_t)i * LONG;
  if (packbuf_add_tensor(&out, "dense", &dense, mask, &error) || packbuf_add_ragged(&out, "equal", &ragged, &error))
    exit(printf("Bail out! %s\n", line()));
  {
    int64_t *tails = (int64_t *)packbuf_arena_alloc(&b->arena, ROWS * LONG * 8, 64);
    uint64_t *lengths = (uint64_t *)packbuf_arena_alloc(&b->arena, ROWS * 8, 64);
    for (unsigned i = 0; i < ROWS * LONG; i++) tails[i] = i % LONG < 90 ? numbers[i] : (int64_t)selecting_random(&seed);
    for (unsigned i = 0; i < ROWS; i++) lengths[i] = 90 + selecting_below(&seed, 31);
    ragged.data = tails, ragged.lengths = lengths, ragged.validity = mask;
    if (packbuf_add_ragged(&out, "prefix", &ragged, &error)) exit(printf("Bail out! %s\n", line()));
  }
  for (unsigned c = 0; c < 4; c++) {
    packbuf_value *values = (packbuf_value *)packbuf_arena_alloc(&b->arena, ROWS * sizeof *values, 16);
    for (unsigned i = 0; i < ROWS; i++) {
      char text[400];
      const unsigned g = i / 8;
      if (c == 0) snprintf(text, sizeof text, "\"group %u \"#30", g);
      if (c == 1) snprintf(text, sizeof text, "tensor:int64(%u,9)", g % 7 + 1);
      if (c == 2) snprintf(text, sizeof text, "[\"x\"]");
      values[i] = c < 2 ? values_of(text, &b->arena) : packbuf_null();
      if (c >= 2) {
        char *bytes = (char *)packbuf_arena_alloc(&b->arena, 200, 8);
        packbuf_media *media = (packbuf_media *)packbuf_arena_alloc(&b->arena, 2 * sizeof *media, 8);
        packbuf_value *items = (packbuf_value *)packbuf_arena_alloc(&b->arena, 2 * sizeof *items, 8);
        memset(bytes, (int)g, 200);
        media[0] = packbuf_media_of(bytes, 150, "image/png");
        media[1] = packbuf_media_of(bytes, 50, NULL);
        media[1].height = g;
        items[0] = packbuf_media_value(&media[0]), items[1] = packbuf_media_value(&media[1]);
        values[i] = c == 3 ? items[0] : packbuf_list(items, g % 3);
      }
      if (selecting_below(&seed, 9) == 0) values[i] = packbuf_null();
    }
    if (packbuf_add_values(&out, names[c], values, &error)) exit(printf("Bail out! %s\n", line()));
  }
  if (packbuf_pack(&out, &data, &b->size, &error)) exit(printf("Bail out! %s\n", line()));
  open_batch(b, data);
}

static void free_batch(batch *b) {
  packbuf_arena_free(&b->arena);
  free(b->data);
}

/* ---- one selection, every way ---- */

static packbuf_status select_one(const packbuf_view *view, const char *pattern, packbuf_row_selection rows,
                                 packbuf_selection *s) {
  return packbuf_select(view, 0, &pattern, 1, rows, &arena, s, &error);
}

/* The first node of the batch values. */
static uint32_t fields_end(const packbuf_view *view) {
  packbuf_node node;
  uint32_t i = 0;
  while (i < view->node_count && packbuf_get_node(view, i, &node, NULL) == PACKBUF_OK && node.scope == 0)
    i += 1 + node.descendants;
  return i;
}

/* Up to three patterns: paths of any nodes, some taken away again. */
static size_t any_patterns(const packbuf_view *view, char (*text)[256], const char **patterns, uint64_t *seed) {
  const size_t count = 1 + (size_t)selecting_below(seed, 3);
  const uint64_t fields = fields_end(view);
  for (size_t i = 0; i < count; i++) {
    const int away = i > 0 && selecting_below(seed, 4) == 0;
    const size_t size =
        packbuf_node_path(view, (uint32_t)selecting_below(seed, fields), text[i] + away, sizeof text[i] - 1);
    if (away) text[i][0] = '!';
    if (size >= sizeof text[i] - 1 || strchr(text[i], '*') || strchr(text[i], '?')) strcpy(text[i], i ? "**" : "*");
    patterns[i] = text[i];
  }
  return fields ? count : 0;
}

/* Values of a selection against those of whole rows, cut down. */
static int check_values(const packbuf_selection *s, const selecting_rows *rows, const char *where) {
  packbuf_value *got = (packbuf_value *)packbuf_arena_alloc(&arena, (size_t)(s->rows + 1) * sizeof *got, 16);
  const packbuf_status status = packbuf_select_values(s, 0, s->rows, &arena, got, &error);
  const uint64_t fields = fields_end(s->view);
  if (status == PACKBUF_WRONG_TYPE || status >= PACKBUF_UNSUPPORTED_VERSION)
    return 1; /* attributes alone; what cannot be read */
  if (status != PACKBUF_OK) return wrong(line(), where, "values");
  for (uint64_t i = 0; i < s->rows; i++) {
    packbuf_value whole, expected;
    if (packbuf_read_row(s->view, rows->expected[i], &arena, &whole, &error))
      return 1; /* another column cannot be read */
    expected = selecting_prune(s, &whole, 0, fields, &arena);
    if (!packbuf_equal(&got[i], &expected)) return wrong("values differ", where, "values");
  }
  return 1;
}

static int same_values(const packbuf_selection *a, const packbuf_selection *b, const char *where) {
  packbuf_value *x = (packbuf_value *)packbuf_arena_alloc(&arena, (size_t)(a->rows + 1) * sizeof *x, 16),
                *y = (packbuf_value *)packbuf_arena_alloc(&arena, (size_t)(b->rows + 1) * sizeof *y, 16);
  const packbuf_status s = packbuf_select_values(a, 0, a->rows, &arena, x, &error),
                       t = packbuf_select_values(b, 0, b->rows, &arena, y, &error);
  if (s != t) return wrong(line(), where, "values of the partial view");
  for (uint64_t i = 0; s == PACKBUF_OK && i < a->rows; i++)
    if (!packbuf_equal(&x[i], &y[i])) return wrong("values differ", where, "values of the partial view");
  return 1;
}

/* Ranges: in order; enough for a partial view; and each needed. */
static int check_ranges(const batch *b, const packbuf_selection *s, const char *const *patterns, size_t pattern_count,
                        packbuf_row_selection rows, const char *where, uint64_t *seed) {
  packbuf_range *ranges;
  uint64_t count, gap = selecting_below(seed, 3) ? selecting_below(seed, 100) : 0;
  const unsigned flags = selecting_below(seed, 4) == 0 ? PACKBUF_RANGES_CHUNKS : 0;
  const packbuf_status status = packbuf_select_ranges(s, 1, gap, flags, &arena, &ranges, &count, &error);
  const uint64_t data = b->view.head_length + b->view.index_length;
  selecting_partial p;
  packbuf_selection again;
  int good = 1;
  if (status) return wrong(line(), where, "ranges");
  for (uint64_t i = 0; i < count; i++) {
    if (ranges[i].length == 0 || ranges[i].offset < data || ranges[i].offset + ranges[i].length > b->size)
      return wrong("a range outside the data", where, "ranges");
    if (i && ranges[i].offset <= ranges[i - 1].offset + ranges[i - 1].length + gap)
      return wrong("ranges that do not ascend or were not joined", where, "ranges");
  }
  if (selecting_fetch(&p, b->data, &b->view, ranges, count, &error) ||
      packbuf_select(&p.view, 0, patterns, pattern_count, rows, &arena, &again, &error))
    good = wrong(line(), where, "partial view");
  for (uint32_t i = 0; good && i < s->node_count; i++) {
    selecting_column one, other;
    const char *differs;
    if (s->flags[s->nodes[i]] != 2) continue;
    selecting_copy(s, s->nodes[i], 1, 64, MOST, &one, &error);
    selecting_copy(&again, s->nodes[i], 1, 64, MOST, &other, &error);
    differs = selecting_same(&one, &other);
    if (differs) good = wrong(differs, where, "copy of the partial view");
    selecting_column_free(&one), selecting_column_free(&other);
  }
  if (good) good = same_values(s, &again, where);
  if (good && (b->view.optional_features & 1)) {
    uint64_t chunks = 0;
    if (packbuf_verify_fetched(&p.view, &chunks, &error)) good = wrong(line(), where, "checksums");
    if (flags && count && chunks == 0) good = wrong("no chunk is whole", where, "checksums");
  }
  if (good && count) { /* one byte less is refused by name, somewhere */
    const uint64_t last = p.count - 1;
    int refused = flags != 0 || gap != 0;
    p.pieces[last].length--;
    for (uint32_t i = 0; !refused && i < again.node_count; i++) {
      selecting_column column;
      if (again.flags[again.nodes[i]] != 2) continue;
      selecting_copy(&again, again.nodes[i], 1, 64, MOST, &column, &error);
      if (column.status == PACKBUF_NOT_FETCHED)
        refused = error.offset == ranges[last].offset + ranges[last].length - 1 && error.path[0] != 0;
      selecting_column_free(&column);
    }
    if (!refused) good = wrong("a byte that was not fetched is not missed", where, "partial view");
  }
  selecting_fetch_free(&p);
  return good;
}

static unsigned in_place, columns_checked, converted;

static int check_selection(const batch *b, const char *where, uint64_t *seed) {
  char text[3][256];
  const char *patterns[3];
  const size_t pattern_count = any_patterns(&b->view, text, patterns, seed);
  const int all = selecting_below(seed, 2) != 0;
  const unsigned bits = selecting_below(seed, 2) ? 32 : 64;
  selecting_rows rows;
  packbuf_selection s;
  packbuf_status status;
  int good = 1, readable = 1;
  selecting_rows_make(&rows, b->view.rows, 1000, seed);
  status = packbuf_select(&b->view, 0, patterns, pattern_count, rows.rows, &arena, &s, &error);
  if (status) good = wrong(line(), where, pattern_count ? patterns[0] : "");
  if (good && s.rows != rows.count) good = wrong("another number of rows", where, "select");
  for (uint64_t i = 0; good && i < s.rows; i++)
    if (packbuf_selected_row(&s, i) != rows.expected[i]) good = wrong("another row", where, "select");
  for (uint32_t i = 0; good && i < s.node_count; i++) {
    selecting_column c;
    packbuf_column column;
    const char *differs = NULL;
    const packbuf_status opened = packbuf_open_column(&b->view, s.nodes[i], &column, NULL);
    selecting_copy(&s, s.nodes[i], all, bits, MOST, &c, &error);
    if (c.status == PACKBUF_OK) {
      differs = selecting_check_column(&s, s.nodes[i], &c, rows.expected, rows.count, all);
      if (!differs) differs = selecting_check_in_place(&s, s.nodes[i], &c, &in_place);
      if (!differs) differs = selecting_check_converted(&s, s.nodes[i], &c, &converted);
      columns_checked++;
    } else if (c.status != opened && c.status != PACKBUF_LIMIT) {
      differs = line();
    }
    if (differs) good = wrong(differs, where, "copy");
    if (opened) readable = 0;
    selecting_column_free(&c);
  }
  if (good && readable) good = check_values(&s, &rows, where);
  if (good && readable) good = check_ranges(b, &s, patterns, pattern_count, rows.rows, where, seed);
  selecting_rows_free(&rows);
  packbuf_arena_free(&arena);
  packbuf_arena_init(&arena, NULL);
  return good;
}

static void random_batches(void) {
  uint64_t seed = 1;
  int good = 1;
  unsigned count = 0;
  in_place = columns_checked = converted = 0;
  for (unsigned i = 0; good && i < 12; i++) {
    static const uint64_t sizes[] = {1, 7, 64, 65, 200, 1000};
    batch b;
    make_batch(&b, sizes[i % 6], i, i % 2 ? 64 : 4096);
    for (unsigned k = 0; good && k < (b.view.rows > 500 ? 30 : 80); k++, count++)
      good = check_selection(&b, "random batch", &seed);
    free_batch(&b);
  }
  tap_ok(good,
         "%u selections of random batches: copied, in place, values, ranges and partial views agree with the cells%s%s",
         count, good ? "" : ": ", good ? "" : wrong_text);
  tap_ok((in_place > 100 || bytes_big_endian()) && columns_checked > 3000,
         "%u columns copied, %u of them also in place", columns_checked, in_place);
  tap_ok(converted > 1000, "%u columns of integers copied as other integers", converted);
}

static void shared_rows(void) {
  uint64_t seed = 4;
  int good = 1;
  unsigned count = 0, sharing = 0, prefixes = 0;
  for (unsigned i = 0; good && i < 3; i++) {
    batch b;
    make_shared(&b, i);
    for (uint32_t n = 0; n < b.view.node_count; n++) {
      packbuf_column column;
      if (packbuf_open_column(&b.view, n, &column, &error)) continue;
      sharing += column.row_index.storage != 0;
      prefixes += column.prefix_row.storage != 0;
    }
    for (unsigned k = 0; good && k < 100; k++, count++) good = check_selection(&b, "shared rows", &seed);
    free_batch(&b);
  }
  tap_ok(good && sharing >= 15 && prefixes >= 3,
         "%u selections of batches with %u shared columns and %u with prefixes%s%s", count, sharing, prefixes,
         good ? "" : ": ", good ? "" : wrong_text);
}

static void vectors(void) {
  static const char folder[] = "spec/vectors/valid";
  DIR *list = opendir(folder);
  struct dirent *entry;
  unsigned files = 0;
  int good = 1;
  uint64_t seed = 2;
  while (good && list && (entry = readdir(list)) != NULL) {
    char path[1024];
    batch b;
    FILE *stream;
    long size;
    if (!strstr(entry->d_name, ".pbuf")) continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    stream = fopen(path, "rb");
    if (!stream || fseek(stream, 0, SEEK_END) || (size = ftell(stream)) <= 0 || fseek(stream, 0, SEEK_SET))
      exit(printf("Bail out! cannot read %s\n", path));
    b.size = (uint64_t)size;
    b.data = (uint8_t *)aligned_alloc(4096, (size_t)((b.size + 4095) & ~(uint64_t)4095));
    if (fread(b.data, 1, (size_t)size, stream) != (size_t)size) exit(printf("Bail out! cannot read %s\n", path));
    fclose(stream);
    packbuf_arena_init(&b.arena, NULL);
    if (packbuf_open(&b.view, b.data, b.size, 0, NULL, &error) == PACKBUF_OK && b.view.kind == 1) {
      files++;
      for (unsigned k = 0; good && k < 40; k++) good = check_selection(&b, entry->d_name, &seed);
    }
    free_batch(&b);
  }
  if (list) closedir(list);
  tap_ok(good && files > 100, "40 selections of each of %u valid vectors agree with the cells%s%s", files,
         good ? "" : ": ", good ? "" : wrong_text);
}

/* ---- rows and patterns ---- */

static int rows_are(const packbuf_view *view, packbuf_row_selection rows, const char *expected) {
  packbuf_selection s;
  char text[200] = "";
  if (packbuf_select(view, 0, NULL, 0, rows, &arena, &s, &error))
    return strcmp(packbuf_status_name(error.code), expected) == 0;
  for (uint64_t i = 0; i < s.rows && i < 20; i++)
    snprintf(text + strlen(text), sizeof text - strlen(text), "%s%u", i ? " " : "",
             (unsigned)packbuf_selected_row(&s, i));
  if (strcmp(text, expected) != 0) tap_note("got %s", text);
  return strcmp(text, expected) == 0;
}

static void row_lists(const batch *b) {
  static const int64_t index[] = {-1, 0, 6, -7, 0, 0}, up[] = {1, 3, 5}, down[] = {6, 5, 4}, beyond[] = {0, 7},
                       before[] = {0, 1, -8}, lowest[] = {INT64_MIN};
  static const uint8_t bytes[] = {0, 1, 0, 255, 0, 2, 0}, bits[] = {0xAA};
  const packbuf_view *v = &b->view;
  packbuf_selection s;
  int good =
      rows_are(v, packbuf_rows_all(), "0 1 2 3 4 5 6") && rows_are(v, packbuf_rows_range(2, 4, 1), "2 3") &&
      rows_are(v, packbuf_rows_range(-3, PACKBUF_ROWS_END, 1), "4 5 6") &&
      rows_are(v, packbuf_rows_range(PACKBUF_ROWS_END, PACKBUF_ROWS_BEGIN, -1), "6 5 4 3 2 1 0") &&
      rows_are(v, packbuf_rows_range(100, -100, -3), "6 3 0") && rows_are(v, packbuf_rows_range(0, 7, 3), "0 3 6") &&
      rows_are(v, packbuf_rows_range(5, 2, 1), "") && rows_are(v, packbuf_rows_range(1, 100, INT64_MAX), "1") &&
      rows_are(v, packbuf_rows_range(6, PACKBUF_ROWS_BEGIN, INT64_MIN), "6") &&
      rows_are(v, packbuf_rows_range(0, 1, 0), "INVALID_ARGUMENT") &&
      rows_are(v, packbuf_rows_index(index, 6), "6 0 6 0 0 0") && rows_are(v, packbuf_rows_index(up, 3), "1 3 5") &&
      rows_are(v, packbuf_rows_index(down, 3), "6 5 4") && rows_are(v, packbuf_rows_index(NULL, 0), "") &&
      rows_are(v, packbuf_rows_mask(bytes, 7), "1 3 5") && rows_are(v, packbuf_rows_bitmap(bits, 7), "1 3 5");
  tap_ok(good, "ranges as Python's, lists with repeats and from the end, masks of bytes and of bits");
  good = rows_are(v, packbuf_rows_index(beyond, 2), "OUT_OF_RANGE") && error.row == 1 &&
         rows_are(v, packbuf_rows_index(before, 3), "OUT_OF_RANGE") && error.row == 2 &&
         rows_are(v, packbuf_rows_index(lowest, 1), "OUT_OF_RANGE") && error.row == 0 &&
         rows_are(v, packbuf_rows_mask(bytes, 6), "ROW_COUNT") &&
         rows_are(v, packbuf_rows_bitmap(bits, 8), "ROW_COUNT") &&
         rows_are(v, packbuf_rows_index(NULL, 3), "INVALID_ARGUMENT");
  tap_ok(good, "an index that passes the rows is refused with its place, a mask of another length too");
  good = packbuf_select(v, 0, NULL, 0, packbuf_rows_index(up, 3), &arena, &s, &error) == PACKBUF_OK &&
         s.index == NULL && s.step == 2;
  tap_ok(good, "a list that is a range is kept as one");
}

static int fields_are(const packbuf_view *view, unsigned scope, const char *patterns, const char *expected) {
  char copy[256], got[1024] = "", path[128];
  const char *list[8];
  size_t count = 0;
  packbuf_selection s;
  snprintf(copy, sizeof copy, "%s", patterns);
  for (char *at = strtok(copy, " "); at; at = strtok(NULL, " ")) list[count++] = at;
  if (packbuf_select(view, scope, list, count, packbuf_rows_all(), &arena, &s, &error)) {
    snprintf(got, sizeof got, "%s %s", packbuf_status_name(error.code), error.path);
  } else {
    for (uint32_t i = 0; i < s.node_count; i++) {
      packbuf_node_path(view, s.nodes[i], path, sizeof path);
      snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s%s", i ? " " : "", path,
               s.flags[s.nodes[i]] == 1 ? "^" : "");
    }
  }
  if (strcmp(got, expected) != 0) tap_note("%s gives %s", patterns, got);
  return strcmp(got, expected) == 0;
}

static void field_patterns(const batch *b) {
  const packbuf_view *v = &b->view;
  static const char calls[] =
      "calls calls[0] calls[0].name calls[0].args calls[1] calls[1].name calls[1].args calls[2] calls[2].name";
  int good = fields_are(v, 0, "seq", "seq") && fields_are(v, 0, "text seq", "seq text") &&
             fields_are(v, 0, "meta", "meta meta.step meta.tag meta.deep meta.deep.x meta.deep.y") &&
             fields_are(v, 0, "meta.deep.x", "meta^ meta.deep^ meta.deep.x") &&
             fields_are(v, 0, "s*", "seq score same") && fields_are(v, 0, "*e*d*", "ragged mixed");
  good =
      fields_are(v, 0, "d*e", "dense") && fields_are(v, 0, "meta.*t*", "meta^ meta.step meta.tag") &&
      fields_are(v, 0, "**.x", "meta^ meta.deep^ meta.deep.x") &&
      fields_are(v, 0, "meta.**", "meta meta.step meta.tag meta.deep meta.deep.x meta.deep.y") &&
      fields_are(v, 0, "calls", calls) && fields_are(v, 0, "calls[1].name", "calls^ calls[1]^ calls[1].name") &&
      fields_are(v, 0, "calls[*].name",
                 "calls^ calls[0]^ calls[0].name calls[1]^ calls[1].name calls[2]^ calls[2].name") &&
      fields_are(v, 0, "**.name", "calls^ calls[0]^ calls[0].name calls[1]^ calls[1].name calls[2]^ calls[2].name") &&
      fields_are(v, 0, "blob\\.dots", "blob\\.dots") && fields_are(v, 0, "blob*", "blob\\.dots") &&
      fields_are(v, 0, "meta !meta.deep !meta.tag", "meta meta.step") &&
      fields_are(v, 0, "picture.mime", "picture^ picture.mime") &&
      fields_are(v, 0, "picture !picture.mime", "picture picture.mime") && good;
  tap_ok(good, "patterns: paths with all below, stars in a name, any item, any depth, taking away");
  good = fields_are(v, 0, "!* seq", "seq") && fields_are(v, 1, "about.sizes", "about^ about.sizes") &&
         fields_are(v, 1, "**", "about about.name about.sizes about.picture about.picture.mime");
  tap_ok(good, "the first pattern takes away from all; batch values");
  good = fields_are(v, 0, "nothing", "NOT_FOUND nothing") && fields_are(v, 0, "seq x*", "NOT_FOUND x*") &&
         fields_are(v, 0, "calls[9]", "NOT_FOUND calls[9]") &&
         fields_are(v, 0, "calls[x]", "INVALID_ARGUMENT calls[x]") &&
         fields_are(v, 0, "a\\b", "INVALID_ARGUMENT a\\b") && fields_are(v, 0, "seq\\*", "NOT_FOUND seq\\*") &&
         fields_are(v, 0, "about", "NOT_FOUND about") && fields_are(v, 0, "calls[", "INVALID_ARGUMENT calls[") &&
         fields_are(v, 0, "!nothing", "NOT_FOUND !nothing") && fields_are(v, 0, "\\!nothing", "NOT_FOUND \\!nothing") &&
         fields_are(v, 0, "seq\\!", "INVALID_ARGUMENT seq\\!");
  tap_ok(good, "a pattern that matches nothing, or is none, is named");
  good = fields_are(v, 0, "*a*a*a*a*a*a*a*a*a*a*a*a*z", "NOT_FOUND *a*a*a*a*a*a*a*a*a*a*a*a*z") &&
         fields_are(v, 0, "**.**.**.**.**.**.**.nothing", "NOT_FOUND **.**.**.**.**.**.**.nothing");
  tap_ok(good, "stars that match nothing end soon");
}

/* ---- capacity, arena, limits ---- */

static void capacities(const batch *b) {
  int good = 1;
  unsigned refused = 0;
  packbuf_selection s;
  if (packbuf_select(&b->view, 0, NULL, 0, packbuf_rows_range(0, PACKBUF_ROWS_END, 2), &arena, &s, &error)) good = 0;
  for (uint32_t i = 0; good && i < s.node_count; i++) {
    selecting_column c;
    packbuf_select_into into;
    selecting_copy(&s, s.nodes[i], 1, 64, MOST, &c, &error);
    if (c.status) good = 0;
    into = c.into;
    if (good && c.size.data_bytes) {
      into.data_capacity--;
      good = packbuf_select_copy(&s, s.nodes[i], &into, NULL, &error) == PACKBUF_CAPACITY && error.path[0];
      refused++;
      into.data_capacity++;
    }
    if (good) {
      into.rows--;
      good = packbuf_select_copy(&s, s.nodes[i], &into, NULL, &error) == PACKBUF_CAPACITY;
      into.rows++;
    }
    if (good && c.size.items) {
      into.items--;
      good = packbuf_select_copy(&s, s.nodes[i], &into, NULL, &error) == PACKBUF_CAPACITY;
    }
    selecting_column_free(&c);
  }
  tap_ok(good && refused > 10, "a destination one byte, row or item too small is refused (%u columns)", refused);
}

static void no_memory(const batch *b) {
  static const char *const patterns[] = {"**"};
  static const int64_t index[] = {3, 1, 2, 1};
  uint8_t memory[1 << 16];
  int good = 1, done = 0;
  unsigned failed = 0;
  for (unsigned long n = 0; !done && good && n < 100; n++) {
    failing f = failing_at(n, 0);
    packbuf_allocator allocator = failing_allocator(&f);
    packbuf_arena a;
    packbuf_selection s;
    packbuf_range *ranges;
    packbuf_value values[4];
    uint64_t count;
    packbuf_status status;
    packbuf_arena_init(&a, &allocator);
    status = packbuf_select(&b->view, 0, patterns, 1, packbuf_rows_index(index, 4), &a, &s, &error);
    if (status == PACKBUF_OK) status = packbuf_select_ranges(&s, 1, 0, 0, &a, &ranges, &count, &error);
    if (status == PACKBUF_OK) status = packbuf_select_values(&s, 0, 4, &a, values, &error);
    done = status == PACKBUF_OK;
    good = done || (status == PACKBUF_OUT_OF_MEMORY && error.code == status);
    failed += !done;
    packbuf_arena_free(&a);
  }
  tap_ok(good && done && failed > 0, "each of %u allocations may fail", failed);
  failed = 0, done = 0;
  for (size_t room = 0; !done && good && room < sizeof memory; room += 61) {
    packbuf_arena a;
    packbuf_selection s;
    packbuf_range *ranges;
    uint64_t count;
    packbuf_status status;
    packbuf_arena_init_fixed(&a, memory, room);
    status = packbuf_select(&b->view, 0, patterns, 1, packbuf_rows_index(index, 4), &a, &s, &error);
    if (status == PACKBUF_OK) status = packbuf_select_ranges(&s, 1, 0, 0, &a, &ranges, &count, &error);
    done = status == PACKBUF_OK;
    good = done || status == PACKBUF_OUT_OF_MEMORY;
    failed += !done;
  }
  tap_ok(good && done && failed > 5, "a fixed arena may be full anywhere (%u sizes)", failed);
}

/* Batch values, and the ranges of two selections together. */
static void batch_values(const batch *b) {
  static const char *const names[] = {"about.name", "about.picture"};
  packbuf_selection s[2];
  packbuf_value got, whole, expected;
  packbuf_range *ranges, *apart[2];
  uint64_t count, counts[2], bytes = 0, separate = 0;
  int good = !packbuf_select(&b->view, 1, names, 2, packbuf_rows_all(), &arena, &s[0], &error) && s[0].rows == 1 &&
             !packbuf_select_values(&s[0], 0, 1, &arena, &got, &error) &&
             !packbuf_read_batch_values(&b->view, &arena, &whole, &error);
  if (good) {
    expected = selecting_prune(&s[0], &whole, fields_end(&b->view), b->view.node_count, &arena);
    good = packbuf_equal(&got, &expected) && got.as.dict.count == 1 && got.as.dict.entries[0].value.as.dict.count == 2;
  }
  tap_ok(good, "batch values by pattern%s%s", good ? "" : ": ", good ? "" : line());
  good = !packbuf_select(&b->view, 0, NULL, 0, packbuf_rows_range(0, 3, 1), &arena, &s[0], &error) &&
         !packbuf_select(&b->view, 0, NULL, 0, packbuf_rows_range(100, 104, 1), &arena, &s[1], &error) &&
         !packbuf_select_ranges(s, 2, 0, 0, &arena, &ranges, &count, &error);
  for (int i = 0; good && i < 2; i++) {
    good = !packbuf_select_ranges(&s[i], 1, 0, 0, &arena, &apart[i], &counts[i], &error);
    for (uint64_t k = 0; good && k < counts[i]; k++) separate += apart[i][k].length;
  }
  for (uint64_t i = 0; good && i < count; i++) {
    bytes += ranges[i].length;
    good = i == 0 || ranges[i].offset > ranges[i - 1].offset + ranges[i - 1].length;
  }
  tap_ok(good && bytes != 0 && bytes <= separate, "two selections share one list of ranges%s%s", good ? "" : ": ",
         good ? "" : line());
}

/* Writes a number into the offsets, or another buffer of the index, and selects. */
static packbuf_status with_number(const batch *b, const char *path, packbuf_role role, unsigned dim, uint64_t i,
                                  uint64_t number, packbuf_row_selection rows) {
  packbuf_node node;
  packbuf_buffer buffer;
  packbuf_selection s;
  packbuf_range *ranges;
  selecting_column c, plain;
  packbuf_status status, without;
  uint64_t count, before;
  if (packbuf_find(&b->view, 0, path, &node, &error) ||
      packbuf_get_buffer(&b->view, &node, role, dim, &buffer, &error) || !buffer.bytes)
    return PACKBUF_NOT_FOUND;
  before = bytes_load64(b->data + buffer.offset + 8 * i);
  bytes_store64(b->data + buffer.offset + 8 * i, number);
  status = select_one(&b->view, path, rows, &s);
  if (status == PACKBUF_OK) {
    (void)packbuf_select_ranges(&s, 1, 0, 0, &arena, &ranges, &count, &error);
    selecting_copy(&s, node.index, 0, 64, MOST, &plain, &error);
    selecting_copy(&s, node.index, 1, 64, MOST, &c, &error);
    status = c.status, without = plain.status;
    selecting_column_free(&c), selecting_column_free(&plain);
    if (status == PACKBUF_OK) status = without;
  }
  bytes_store64(b->data + buffer.offset + 8 * i, before);
  return status;
}

static void hostile(const batch *b) {
  static const int64_t index[] = {0, 9, 10, 11, 12, 13, 3};
  const packbuf_row_selection rows[3] = {packbuf_rows_all(), packbuf_rows_range(3, 190, 2),
                                         packbuf_rows_index(index, 7)};
  static const char *const names[] = {"ragged",  "text",    "mixed",  "blob\\.dots",
                                      "picture", "tensors", "arrays", "lists"};
  static const uint64_t numbers[] = {UINT64_MAX, UINT64_C(1) << 63, UINT64_C(1) << 40};
  packbuf_selection s;
  packbuf_selected_size size;
  selecting_column c;
  unsigned refused = 0;
  int good = 1;
  for (unsigned n = 0; good && n < sizeof names / sizeof *names; n++)
    for (unsigned r = 0; good && r < 3; r++)
      for (unsigned k = 0; good && k < 3; k++) {
        const packbuf_status status = with_number(b, names[n], PACKBUF_ROLE_OFFSETS, 0, 12, numbers[k], rows[r]);
        good = status == PACKBUF_BAD_OFFSETS || (r != 0 && status == PACKBUF_OK); /* the row before it may be absent */
        refused += status != PACKBUF_OK;
      }
  good = good && refused > 40;
  good = good &&
         with_number(b, "gallery", PACKBUF_ROLE_ITEM_OFFSETS, 0, 11, UINT64_MAX, rows[0]) == PACKBUF_BAD_OFFSETS &&
         with_number(b, "gallery", PACKBUF_ROLE_OFFSETS, 0, 11, UINT64_MAX, rows[0]) == PACKBUF_BAD_OFFSETS;
  for (uint64_t row = 0, wrong_shapes = 0; good && row < 20; row++) {
    const packbuf_status status = with_number(b, "tensors", PACKBUF_ROLE_SHAPE, 0, row, 1000, rows[0]);
    wrong_shapes += status == PACKBUF_BAD_SHAPE;
    good = (status == PACKBUF_BAD_SHAPE || status == PACKBUF_OK) &&
           (row < 19 || wrong_shapes > 5); /* absent, or another dimension is 0 */
  }
  good = good && with_number(b, "ragged", PACKBUF_ROLE_OFFSETS, 0, 100, 1, rows[0]) ==
                     PACKBUF_BAD_OFFSETS; /* within the data, but it descends */
  tap_ok(good, "offsets that descend or pass the data and shapes that do not fit are refused%s%s", good ? "" : ": ",
         good ? "" : line());
  good = !select_one(&b->view, "text", rows[0], &s) && packbuf_select_size(&s, 0, &size, &error) == PACKBUF_NOT_FOUND &&
         packbuf_select_size(&s, UINT32_MAX, &size, &error) == PACKBUF_NOT_FOUND;
  tap_ok(good, "a node that is not in the selection is not found");
  selecting_copy(&s, s.nodes[0], 0, 64, MOST, &c, &error);
  c.into.offset_bits = 16;
  tap_ok(packbuf_select_copy(&s, s.nodes[0], &c.into, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "offsets have 32 or 64 bits");
  selecting_column_free(&c);
}

/* 2^48 rows of one constant, and of ragged rows that are all alike. */
static void huge(void) {
  enum { ROWS = 1000 };
  packbuf_arena a;
  packbuf_batch out;
  packbuf_value values[ROWS];
  packbuf_ragged ragged;
  packbuf_view view;
  packbuf_selection s;
  packbuf_selected_size size;
  packbuf_range *ranges = NULL;
  uint64_t total = 0, count, offsets[ROWS + 1];
  int64_t sevens[ROWS * 3];
  void *data = NULL;
  uint8_t *bytes;
  static const int64_t index[] = {0, -1, (INT64_C(1) << 48) - 1, 5};
  int good;
  packbuf_arena_init(&a, NULL);
  for (int i = 0; i < ROWS; i++) values[i] = packbuf_int(7), offsets[i] = (uint64_t)i * 3;
  for (int i = 0; i < ROWS * 3; i++) sevens[i] = 7;
  offsets[ROWS] = ROWS * 3;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = sevens, ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), ragged.offset_bits = 64,
  ragged.items = ROWS * 3, ragged.offsets = offsets;
  good = !packbuf_batch_init(&out, ROWS, &a, NULL, &error) && !packbuf_add_values(&out, "same", values, &error) &&
         !packbuf_add_ragged(&out, "alike", &ragged, &error) && !packbuf_pack(&out, &data, &total, &error);
  bytes = (uint8_t *)data;
  if (good) { /* the same records with 2^48 rows: counts are at 16 of a buffer record, rows at 48 of a node record and
                 of the header */
    const uint64_t rows = UINT64_C(1) << 48;
    packbuf_view old;
    good = !packbuf_open(&old, data, total, 0, NULL, &error);
    bytes_store64(bytes + 48, rows);
    for (uint32_t i = 0; good && i < old.node_count; i++) bytes_store64(bytes + bytes_node_at(&old, i) + 48, rows);
    for (uint32_t i = 0; good && i < old.buffer_count; i++) {
      packbuf_buffer buffer;
      good = !packbuf_get_buffer_at(&old, i, &buffer, &error) && buffer.bytes == NULL;
      bytes_store64(bytes + bytes_buffer_at(&old, i) + 16, buffer.role == PACKBUF_ROLE_OFFSETS ? rows + 1
                                                           : buffer.node == 0                  ? rows
                                                                                               : rows * 3);
    }
    if (good) seal_head(bytes, total);
  }
  if (good)
    good = !packbuf_open(&view, data, total, 0, NULL, &error) && !packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error);
  if (!good) tap_note("%s", line());
  good = good && !select_one(&view, "*", packbuf_rows_range(0, PACKBUF_ROWS_END, 3), &s) &&
         packbuf_select_size(&s, 0, &size, &error) == PACKBUF_LIMIT &&
         packbuf_select_size(&s, 1, &size, &error) == PACKBUF_LIMIT &&
         !packbuf_select_ranges(&s, 1, 0, 0, &arena, &ranges, &count, &error) && count == 0;
  view.limits.decoded_bytes = UINT64_MAX;
  good = good && !packbuf_select_size(&s, 0, &size, &error) && size.data_bytes == ((UINT64_C(1) << 48) + 2) / 3 * 8 &&
         !packbuf_select_size(&s, 1, &size, &error) && size.elements == ((UINT64_C(1) << 48) + 2) / 3 * 3;
  tap_ok(good, "2^48 computed rows are sized by arithmetic, within the limit of decoded bytes%s%s", good ? "" : ": ",
         good ? "" : line());
  good = good && !select_one(&view, "*", packbuf_rows_index(index, 4), &s);
  for (uint32_t node = 0; good && node < 2; node++) {
    selecting_column c;
    selecting_copy(&s, node, 1, 64, MOST, &c, &error);
    good = c.status == PACKBUF_OK && c.size.elements == (node ? 12u : 4u);
    for (uint64_t i = 0; good && i < c.size.elements; i++) good = ((int64_t *)c.into.data)[i] == 7;
    selecting_column_free(&c);
  }
  tap_ok(good, "and copied by an index list%s%s", good ? "" : ": ", good ? "" : line());
  packbuf_arena_free(&a);
}

/* Many rows that are one cost time, though no memory: what is asked for and looked through is limited too. */
static void repeated(void) {
  enum { ROWS = 2000, LONG = 1 << 16 };
  static const char *const names[] = {"text", "json", "flags", "gallery"};
  packbuf_arena a;
  packbuf_batch out;
  packbuf_schema schema;
  packbuf_options options = packbuf_default_options();
  packbuf_value cells[ROWS], read[ROWS], item[2];
  packbuf_media media;
  packbuf_tensor flags;
  packbuf_view view;
  uint64_t shape[1] = {LONG}, size;
  void *data = NULL;
  char *text;
  packbuf_arena_init(&a, NULL);
  text = (char *)packbuf_arena_alloc(&a, LONG, 8);
  memset(text, 'x', LONG);
  text[7] = 'y';
  memset(&flags, 0, sizeof flags);
  flags.data = packbuf_arena_alloc(&a, LONG, 8), flags.dtype = packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), flags.rank = 1,
  flags.shape = shape;
  memset((void *)(uintptr_t)flags.data, 0, LONG);
  memset((void *)(uintptr_t)flags.data, 1, 5);
  media = packbuf_media_of(text, 9000, "image/png");
  item[0] = packbuf_media_value(&media), item[1] = packbuf_bytes(text, 3);
  memset(&schema, 0, sizeof schema);
  schema.path = "json", schema.codec = PACKBUF_CODEC_JSON_RAGGED;
  options.schemas = &schema, options.schema_count = 1;
  for (unsigned n = 0; n < 4; n++) {
    packbuf_node node;
    packbuf_column column;
    packbuf_selection s;
    packbuf_selected_size sized;
    packbuf_arena local;
    packbuf_status small, large;
    options.schema_count = n == 1;
    for (unsigned i = 0; i < ROWS; i++)
      cells[i] = n < 2 ? packbuf_string_n(text, LONG) : n == 2 ? packbuf_tensor_value(&flags) : packbuf_list(item, 2);
    if (packbuf_batch_init(&out, ROWS, &a, &options, &error) || packbuf_add_values(&out, names[n], cells, &error) ||
        packbuf_pack(&out, &data, &size, &error) || packbuf_open(&view, data, size, 0, NULL, &error) ||
        packbuf_find(&view, 0, names[n], &node, &error) || packbuf_open_column(&view, node.index, &column, &error))
      exit(printf("Bail out! %s\n", line()));
    packbuf_arena_init(&local, NULL);
    if (n < 3) {
      if (n != 1 && !column.row_index.storage) exit(printf("Bail out! %s does not share rows\n", names[n]));
      large = packbuf_read_column(&view, node.index, 0, ROWS, &local, read, &error);
      view.limits.decoded_bytes = 10 * (uint64_t)LONG;
      small = packbuf_read_column(&view, node.index, 0, ROWS, &local, read, &error);
    } else {
      if (select_one(&view, names[n], packbuf_rows_all(), &s)) exit(printf("Bail out! %s\n", line()));
      large = packbuf_select_size(&s, node.index + 1, &sized, &error);
      view.limits.decoded_bytes = 16 * (ROWS - 1);
      small = packbuf_select_size(&s, node.index + 1, &sized, &error);
    }
    tap_ok(large == PACKBUF_OK && small == PACKBUF_LIMIT,
           "%u rows of %s that are one keep to the limit of decoded bytes: %s, %s", ROWS, names[n],
           packbuf_status_name(large), packbuf_status_name(small));
    packbuf_arena_free(&local);
  }
  packbuf_arena_free(&a);
}

/* ---- what is not needed is not touched ---- */

static void unmapped(void) {
  enum { ROWS = 64, WIDTH = 1024 }; /* a row of int32 is a page */
  static const char *const patterns[] = {"a", "c", "d"};
  const long page = sysconf(_SC_PAGESIZE);
  packbuf_arena a;
  packbuf_batch out;
  packbuf_options options = packbuf_default_options();
  packbuf_tensor tensor;
  packbuf_view view;
  packbuf_selection s;
  packbuf_range *ranges = NULL;
  uint64_t shape[2] = {ROWS, WIDTH}, total = 0, count = 0, touched = 0, needed = 0;
  int32_t *numbers = (int32_t *)malloc(sizeof *numbers * ROWS * WIDTH * 4);
  uint8_t *map, *open_pages;
  void *data = NULL;
  int good = numbers != NULL && page == 4096;
  packbuf_arena_init(&a, NULL);
  options.alignment_exponent = 12;
  for (int i = 0; i < ROWS * WIDTH * 4; i++) numbers[i] = i;
  memset(&tensor, 0, sizeof tensor);
  tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32), tensor.rank = 2, tensor.shape = shape;
  good = good && !packbuf_batch_init(&out, ROWS, &a, &options, &error);
  for (int f = 0; good && f < 4; f++) {
    static const char *const names[] = {"a", "b", "c", "d"};
    tensor.data = numbers + f * ROWS * WIDTH;
    good = !packbuf_add_tensor(&out, names[f], &tensor, NULL, &error);
  }
  good = good && !packbuf_pack(&out, &data, &total, &error);
  map = (uint8_t *)mmap(NULL, (size_t)total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  open_pages = (uint8_t *)calloc(1, (size_t)(total / 4096));
  good = good && map != MAP_FAILED && open_pages;
  if (good) memcpy(map, data, (size_t)total);
  good = good && !packbuf_open(&view, map, total, 0, NULL, &error) &&
         !packbuf_select(&view, 0, patterns, 3, packbuf_rows_range(3, PACKBUF_ROWS_END, 8), &arena, &s, &error) &&
         !packbuf_select_ranges(&s, 1, 0, 0, &arena, &ranges, &count, &error);
  for (uint64_t i = 0; good && i < (view.head_length + view.index_length) / 4096; i++) open_pages[i] = 1;
  for (uint64_t i = 0; good && i < count; i++) {
    needed += ranges[i].length;
    for (uint64_t at = ranges[i].offset / 4096; at <= (ranges[i].offset + ranges[i].length - 1) / 4096; at++)
      open_pages[at] = 1, touched++;
  }
  for (uint64_t i = 0; good && i < total / 4096; i++)
    if (!open_pages[i]) good = mprotect(map + i * 4096, 4096, PROT_NONE) == 0;
  tap_ok(good && count == 24 && needed == 24 * 4096 && touched == 24,
         "3 fields of 4, 1 row in 8: %u ranges, %u pages of %u", (unsigned)count, (unsigned)touched,
         (unsigned)(total / 4096));
  for (uint32_t i = 0; good && i < s.node_count; i++) {
    selecting_column c;
    packbuf_selected_tensor t;
    selecting_copy(&s, s.nodes[i], 1, 64, MOST, &c, &error);
    good = c.status == PACKBUF_OK;
    if (bytes_big_endian()) good = good && packbuf_select_tensor(&s, s.nodes[i], &t, &error) == PACKBUF_NOT_STORED;
    else good = good && !packbuf_select_tensor(&s, s.nodes[i], &t, &error);
    for (uint64_t row = 0; good && row < s.rows; row++)
      good = memcmp((uint8_t *)c.into.data + row * 4096,
                    numbers + (s.nodes[i] * ROWS + packbuf_selected_row(&s, row)) * WIDTH, 4096) == 0 &&
             (bytes_big_endian() || memcmp((const uint8_t *)t.tensor.data + (int64_t)row * t.strides[0],
                                           (uint8_t *)c.into.data + row * 4096, 4096) == 0);
    selecting_column_free(&c);
  }
  if (good) {
    packbuf_value values[8];
    good = !packbuf_select_values(&s, 0, 8, &arena, values, &error);
    for (int i = 0; good && i < 8; i++)
      good = values[i].as.dict.count == 3 && ((const int32_t *)values[i].as.dict.entries[1].value.as.tensor->data)[0] ==
                                                 numbers[(2 * ROWS + 3 + 8 * i) * WIDTH];
  }
  tap_ok(good, "with all other pages taken away the selection is read: copied, in place and as values%s%s",
         good ? "" : ": ", good ? "" : line());
  if (map != MAP_FAILED) munmap(map, (size_t)total);
  free(open_pages), free(numbers);
  packbuf_arena_free(&a);
}

/* Everything outside the ranges is made random: the answer does not change. */
static void poisoned(const batch *b) {
  uint64_t seed = 77;
  int good = 1;
  unsigned count = 0;
  for (; good && count < 100; count++) {
    char text[3][256];
    const char *patterns[3];
    const size_t pattern_count = any_patterns(&b->view, text, patterns, &seed);
    uint8_t *other = (uint8_t *)malloc((size_t)b->size);
    const uint64_t data = b->view.head_length + b->view.index_length;
    uint64_t range_count, next = data;
    selecting_rows rows;
    packbuf_selection s, t;
    packbuf_range *ranges = NULL;
    packbuf_view view;
    selecting_rows_make(&rows, b->view.rows, 1000, &seed);
    good = !packbuf_select(&b->view, 0, patterns, pattern_count, rows.rows, &arena, &s, &error) &&
           !packbuf_select_ranges(&s, 1, 0, 0, &arena, &ranges, &range_count, &error);
    memcpy(other, b->data, (size_t)b->size);
    for (uint64_t i = 0; good && i <= range_count; i++) {
      const uint64_t stop = i < range_count ? ranges[i].offset : b->size;
      for (; next < stop; next++) other[next] = (uint8_t)selecting_random(&seed);
      if (i < range_count) next = ranges[i].offset + ranges[i].length;
    }
    good = good && !packbuf_open(&view, other, b->size, 0, NULL, &error) &&
           !packbuf_select(&view, 0, patterns, pattern_count, rows.rows, &arena, &t, &error);
    for (uint32_t i = 0; good && i < s.node_count; i++) {
      selecting_column x, y;
      if (s.flags[s.nodes[i]] != 2) continue;
      selecting_copy(&s, s.nodes[i], 1, 64, MOST, &x, &error);
      selecting_copy(&t, s.nodes[i], 1, 64, MOST, &y, &error);
      good = selecting_same(&x, &y) == NULL;
      selecting_column_free(&x), selecting_column_free(&y);
    }
    good = good && same_values(&s, &t, "poisoned");
    selecting_rows_free(&rows);
    free(other);
  }
  tap_ok(good, "%u selections do not change when every byte outside their ranges does%s%s", count, good ? "" : ": ",
         good ? "" : line());
}

/* ---- partial views ---- */

static void partial_views(const batch *b) {
  const uint64_t head = b->view.head_length + b->view.index_length;
  packbuf_fetched pieces[3];
  packbuf_view view;
  packbuf_node node;
  packbuf_buffer buffer;
  packbuf_column column;
  packbuf_value value, other;
  const void *bytes;
  uint64_t size;
  int state = 0;
  unsigned refused = 0;
  static const char *const names[] = {"dense",   "ragged",  "score",  "text",  "mixed",      "picture",
                                      "gallery", "tensors", "arrays", "lists", "old_numbers"};
  uint8_t copy[64];
  int good =
      packbuf_open_partial(&view, b->data, head - 1, NULL, 0, 0, NULL, &error) == PACKBUF_TRUNCATED &&
      error.needed == head &&
      packbuf_open_partial(&view, b->data, head, NULL, 0, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_INVALID_ARGUMENT;
  pieces[0].offset = head + 64, pieces[0].length = 64, pieces[0].bytes = b->data + pieces[0].offset;
  pieces[1].offset = head + 100, pieces[1].length = 64, pieces[1].bytes = b->data + pieces[1].offset;
  good = good && packbuf_open_partial(&view, b->data, head, pieces, 2, 0, NULL, &error) == PACKBUF_INVALID_ARGUMENT;
  pieces[1].offset = b->size - 1;
  good = good && packbuf_open_partial(&view, b->data, head, pieces, 2, 0, NULL, &error) == PACKBUF_INVALID_ARGUMENT;
  pieces[1].offset = UINT64_MAX - 8;
  good = good && packbuf_open_partial(&view, b->data, head, pieces, 2, 0, NULL, &error) == PACKBUF_INVALID_ARGUMENT;
  tap_ok(good, "pieces out of order or beyond the end, or a head that is not whole, are refused");
  good = !packbuf_open_partial(&view, b->data, head, NULL, 0, PACKBUF_OPEN_TABLES, NULL, &error) &&
         !packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error) &&
         packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) == PACKBUF_NOT_FETCHED && error.offset == head;
  tap_ok(good, "a view without data verifies up to level index%s%s", good ? "" : ": ", good ? "" : line());
  good = good && !packbuf_find(&view, 0, "text", &node, &error) &&
         !packbuf_get_buffer(&view, &node, PACKBUF_ROLE_DATA, 0, &buffer, &error) && buffer.bytes == NULL &&
         buffer.partial && packbuf_get_typed(&buffer, buffer.dtype, &bytes, &error) == PACKBUF_NOT_FETCHED &&
         error.offset == buffer.offset && strcmp(error.path, "text") == 0 &&
         packbuf_copy_elements(&view, &buffer, 2, 3, copy, sizeof copy, &error) == PACKBUF_NOT_FETCHED &&
         error.offset == buffer.offset + 2 && !packbuf_open_column(&view, node.index, &column, &error);
  for (uint64_t row = 0; good && row < b->view.rows; row++) {
    good = !packbuf_cell_state(&column, row, &state, &error);
    if (state == 1)
      good = packbuf_cell_bytes(&column, row, &bytes, &size, &error) == PACKBUF_NOT_FETCHED && error.row == row;
  }
  for (unsigned i = 0; good && i < sizeof names / sizeof *names; i++) {
    good = !packbuf_find(&view, 0, names[i], &node, &error);
    for (uint64_t row = 0; good && row < b->view.rows; row++) {
      const packbuf_status status = packbuf_read_cell(&view, node.index, row, &arena, &value, &error);
      const packbuf_status whole = packbuf_read_cell(&b->view, node.index, row, &arena, &other, NULL);
      good = status == PACKBUF_OK ? whole == PACKBUF_OK && packbuf_equal(&value, &other)
                                  : status == PACKBUF_NOT_FETCHED && error.row == row &&
                                        strncmp(error.path, names[i], strlen(names[i])) == 0;
      refused += status != PACKBUF_OK;
    }
  }
  good = good && refused > 500;
  tap_ok(good, "every way to data that were not fetched is refused with offset, path and row%s%s", good ? "" : ": ",
         good ? "" : line());
  good = !packbuf_find(&b->view, 0, "text", &node, &error) &&
         !packbuf_get_buffer(&b->view, &node, PACKBUF_ROLE_DATA, 0, &buffer, &error);
  pieces[0].offset = buffer.offset, pieces[0].length = 3,
  pieces[0].bytes = memcpy(malloc(3), b->data + buffer.offset, 3);
  pieces[1].offset = buffer.offset + 3, pieces[1].length = buffer.length - 3,
  pieces[1].bytes = memcpy(malloc((size_t)buffer.length - 3), b->data + buffer.offset + 3, (size_t)buffer.length - 3);
  good = good && !packbuf_open_partial(&view, b->data, head, pieces, 2, 0, NULL, &error);
  for (uint64_t row = 0; good && row < b->view.rows; row++) {
    packbuf_value whole;
    good = !packbuf_read_cell(&view, node.index, row, &arena, &value, &error) &&
           !packbuf_read_cell(&b->view, node.index, row, &arena, &whole, &error) && packbuf_equal(&value, &whole);
  }
  tap_ok(good, "a cell that was fetched in two ranges is read whole%s%s", good ? "" : ": ", good ? "" : line());
  free((void *)(uintptr_t)pieces[0].bytes), free((void *)(uintptr_t)pieces[1].bytes);
}

/* What says where data lie has to lie in the index: nothing else is read for it. */
static void index_elsewhere(const batch *b) {
  const uint64_t head = b->view.head_length + b->view.index_length;
  uint8_t *bytes = (uint8_t *)malloc((size_t)head);
  packbuf_view view;
  packbuf_node node;
  packbuf_buffer buffer;
  packbuf_column column;
  int good = !packbuf_find(&b->view, 0, "ragged", &node, &error) &&
             !packbuf_get_buffer(&b->view, &node, PACKBUF_ROLE_OFFSETS, 0, &buffer, &error);
  memcpy(bytes, b->data, (size_t)head);
  bytes_store64(bytes + bytes_buffer_at(&b->view, buffer.index) + 24, head + 64);
  seal_head(bytes, b->view.total_length);
  good = good && !packbuf_open_partial(&view, bytes, head, NULL, 0, 0, NULL, &error) &&
         packbuf_open_column(&view, node.index, &column, &error) == PACKBUF_BAD_LAYOUT &&
         error.rule == PACKBUF_RULE_B11;
  tap_ok(good, "offsets in the data section are refused, not fetched%s%s", good ? "" : ": ", good ? "" : line());
  free(bytes);
}

static void checksums(void) {
  packbuf_arena a;
  packbuf_batch out;
  packbuf_options options = packbuf_default_options();
  packbuf_tensor tensor;
  packbuf_view view;
  packbuf_selection s;
  packbuf_range *ranges = NULL;
  selecting_partial p;
  uint64_t shape[1] = {200000}, total = 0, count = 0, chunks = 0;
  int32_t *numbers = (int32_t *)malloc(800000);
  void *data = NULL;
  int good;
  for (int i = 0; i < 200000; i++) numbers[i] = i % 46341 * (i % 7);
  memset(&tensor, 0, sizeof tensor);
  tensor.data = numbers, tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32), tensor.rank = 1, tensor.shape = shape;
  packbuf_arena_init(&a, NULL);
  good = !packbuf_batch_init(&out, shape[0], &a, &options, &error) &&
         !packbuf_add_tensor(&out, "n", &tensor, NULL, &error) && !packbuf_pack(&out, &data, &total, &error) &&
         !packbuf_open(&view, data, total, 0, NULL, &error) &&
         !select_one(&view, "n", packbuf_rows_range(100000, 100010, 1), &s) &&
         !packbuf_select_ranges(&s, 1, 0, PACKBUF_RANGES_CHUNKS, &arena, &ranges, &count, &error) && count == 1 &&
         ranges[0].length == 65536 && (view.optional_features & 1);
  good = good && !selecting_fetch(&p, (const uint8_t *)data, &view, ranges, count, &error) &&
         !packbuf_verify_fetched(&p.view, &chunks, &error) && chunks == 1;
  tap_ok(good, "a whole chunk is fetched for a few rows, and verified%s%s", good ? "" : ": ", good ? "" : line());
  if (good) {
    ((uint8_t *)(uintptr_t)p.pieces[0].bytes)[1000] ^= 1;
    good = packbuf_verify_fetched(&p.view, &chunks, &error) == PACKBUF_DATA_CHECKSUM && error.rule == PACKBUF_RULE_D1 &&
           error.offset == ranges[0].offset;
    selecting_fetch_free(&p);
  }
  good = good && !packbuf_verify_fetched(&view, &chunks, &error) &&
         chunks == (total - view.head_length - view.index_length + 65535) / 65536;
  tap_ok(good, "a bit that changed is found, and a whole view has all its chunks");
  free(numbers);
  packbuf_arena_free(&a);
}

/* ---- a peer that rewrites the memory ---- */

static volatile int stop;
static batch shared;

static volatile int head_too; /* which says what the offsets are: nothing can be said of them then */

static void *rewrite(void *context) {
  uint64_t seed = 9;
  (void)context;
  while (!stop) {
    const uint64_t head = head_too ? 0 : shared.view.head_length;
    const uint64_t at = head + selecting_below(&seed, shared.view.head_length + shared.view.index_length - head);
    const uint8_t before = shared.data[at];
    ((volatile uint8_t *)shared.data)[at] = (uint8_t)selecting_random(&seed);
    for (volatile int i = 0; i < 3000; i++) {}
    ((volatile uint8_t *)shared.data)[at] = before;
  }
  return NULL;
}

/* Offsets that were written agree with the data that were. */
static int offsets_hold(const selecting_column *c, int list) {
  uint64_t before = 0;
  const uint64_t count = list ? c->size.items : c->size.rows;
  for (uint64_t i = 0; i <= count; i++) {
    const uint64_t offset = selecting_offset(c->into.offsets, 64, i);
    if (offset < before) return 0;
    before = offset;
  }
  return before <= c->into.data_capacity;
}

static void rewriting_peer(void) {
  pthread_t thread;
  uint64_t seed = 5;
  int good = 1;
  unsigned copied = 0, refused = 0;
  packbuf_node *nodes; /* as they are before anyone rewrites them */
  make_batch(&shared, 200, 3, 64);
  nodes = (packbuf_node *)calloc(shared.view.node_count, sizeof *nodes);
  for (uint32_t k = 0; nodes && k < shared.view.node_count; k++)
    good = good && packbuf_get_node(&shared.view, k, &nodes[k], NULL) == PACKBUF_OK;
  good = good && nodes;
  head_too = stop = 0;
  if (pthread_create(&thread, NULL, rewrite, NULL)) good = 0;
  for (unsigned i = 0; good && i < 400; i++) {
    const int strict = i < 200;
    selecting_rows rows;
    packbuf_selection s;
    packbuf_range *ranges = NULL;
    packbuf_value values[100];
    uint64_t count;
    packbuf_arena a;
    packbuf_arena_init(&a, NULL);
    a.limit = 1 << 24;
    head_too = !strict;
    selecting_rows_make(&rows, 200, 1000, &seed);
    if (packbuf_select(&shared.view, 0, NULL, 0, rows.rows, &a, &s, NULL) == PACKBUF_OK) {
      (void)packbuf_select_ranges(&s, 1, 0, 0, &a, &ranges, &count, NULL);
      (void)packbuf_select_values(&s, 0, s.rows < 100 ? s.rows : 100, &a, values, NULL);
      for (uint32_t k = 0; good && k < s.node_count; k++) {
        const packbuf_node *node = &nodes[s.nodes[k] % shared.view.node_count];
        selecting_column c;
        selecting_copy(&s, s.nodes[k], (int)(i & 1), 64, MOST, &c, &error);
        copied += c.status == PACKBUF_OK;
        refused += c.status != PACKBUF_OK;
        if (strict && c.status == PACKBUF_OK && node->kind == PACKBUF_LEAF &&
            node->codec >= PACKBUF_CODEC_RAGGED_TENSOR)
          good = offsets_hold(&c, node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED);
        selecting_column_free(&c);
      }
    }
    selecting_rows_free(&rows);
    packbuf_arena_free(&a);
  }
  stop = 1;
  pthread_join(thread, NULL);
  tap_ok(
      good,
      "memory that a peer rewrites gives wrong values or errors, never offsets beyond the data (%u copies, %u refused)",
      copied, refused);
  free(nodes);
  free_batch(&shared);
}

int main(void) {
  batch b;
  packbuf_arena_init(&arena, NULL);
  make_batch(&b, 7, 1, 64);
  row_lists(&b);
  free_batch(&b);
  make_batch(&b, 200, 2, 64);
  field_patterns(&b);
  hostile(&b);
  batch_values(&b);
  capacities(&b);
  no_memory(&b);
  partial_views(&b);
  index_elsewhere(&b);
  poisoned(&b);
  free_batch(&b);
  huge();
  repeated();
  unmapped();
  checksums();
  random_batches();
  shared_rows();
  vectors();
  rewriting_peer();
  packbuf_arena_free(&arena);
  return tap_plan_done();
}
