/* Row sharing (sections 9 and 19 of the spec): what is stored once and what is not, for every source of rows; that what
 * is read back is what was packed, whatever is shared; that only content decides. */
#include "../packbuf.h"
#include "failing.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

static uint64_t random_state = 88172645463325252u;

static uint64_t random_word(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

static unsigned random_below(unsigned n) { return (unsigned)(random_word() >> 33) % n; }

static void random_fill(void *to, size_t size) {
  for (size_t i = 0; i < size; i++) ((uint8_t *)to)[i] = (uint8_t)(random_word() >> 40);
}

/* A batch on its way to a view. */
typedef struct trip {
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_view view;
  packbuf_error error;
  void *data;
  uint64_t size;
} trip;

static void begin(trip *t, uint64_t rows, int sharing) {
  packbuf_options options = packbuf_default_options();
  options.row_sharing = (uint8_t)sharing;
  memset(t, 0, sizeof *t);
  packbuf_arena_init(&t->arena, NULL);
  (void)packbuf_batch_init(&t->batch, rows, &t->arena, &options, NULL);
}

/* Packs, opens and verifies. */
static int packs(trip *t) {
  if (packbuf_pack(&t->batch, &t->data, &t->size, &t->error) == PACKBUF_OK &&
      packbuf_open(&t->view, t->data, t->size, PACKBUF_OPEN_EXACT | PACKBUF_OPEN_TABLES, NULL, &t->error) ==
          PACKBUF_OK &&
      packbuf_verify(&t->view, PACKBUF_LEVEL_FULL, &t->error) == PACKBUF_OK)
    return 1;
  tap_note("%s: %s (row %llu)", packbuf_status_name(t->error.code), t->error.message, (unsigned long long)t->error.row);
  return 0;
}

static void end(trip *t) { packbuf_arena_free(&t->arena); }

static int column(const trip *t, const char *path, packbuf_column *out) {
  packbuf_node node;
  return packbuf_find(&t->view, 0, path, &node, NULL) == PACKBUF_OK &&
         packbuf_open_column(&t->view, node.index, out, NULL) == PACKBUF_OK;
}

/* How many rows a field stores, UINT64_MAX when it does not share. */
static uint64_t stored_rows(const trip *t, const char *path) {
  packbuf_column c;
  return column(t, path, &c) && c.row_index.storage ? c.stored_rows : UINT64_MAX;
}

static int has_prefixes(const trip *t, const char *path) {
  packbuf_column c;
  return column(t, path, &c) && c.prefix_row.storage != 0;
}

/* Whether two views hold the same rows. */
static int same_rows(trip *a, trip *b) {
  const uint64_t rows = a->view.rows;
  packbuf_arena arena;
  packbuf_value *x, *y;
  int same = b->view.rows == rows;
  packbuf_arena_init(&arena, NULL);
  x = (packbuf_value *)packbuf_arena_alloc(&arena, (size_t)rows * 2 * sizeof *x + 1, 16);
  y = x + rows;
  same = same && packbuf_read_rows(&a->view, 0, rows, &arena, x, NULL) == PACKBUF_OK &&
         packbuf_read_rows(&b->view, 0, rows, &arena, y, NULL) == PACKBUF_OK;
  for (uint64_t i = 0; same && i < rows; i++) same = packbuf_equal(&x[i], &y[i]);
  packbuf_arena_free(&arena);
  return same;
}

static packbuf_tensor tensor_of(const void *data, packbuf_dtype dtype, unsigned rank, const uint64_t *shape,
                                const int64_t *strides) {
  packbuf_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = data;
  tensor.dtype = dtype;
  tensor.rank = (uint8_t)rank;
  tensor.form = PACKBUF_FORM_TENSOR;
  tensor.shape = shape;
  tensor.strides = strides;
  return tensor;
}

/* ---- a GRPO batch: every prompt and its images 16 times ---- */

enum { PROMPTS = 8, RESPONSES = 16, ROWS = PROMPTS * RESPONSES, WIDTH = 64, LONGEST = 100, PIXELS = 600 };

typedef struct grpo {
  int64_t ids[ROWS][WIDTH], flat[ROWS * WIDTH], offsets[ROWS + 1], responses[ROWS][LONGEST];
  packbuf_tensor response[ROWS];
  uint64_t response_shape[ROWS];
  packbuf_text text[ROWS];
  char texts[PROMPTS][400];
  uint8_t pixels[PROMPTS][PIXELS];
  packbuf_media media[PROMPTS];
  packbuf_value image[ROWS], images[ROWS], items[PROMPTS][2], deep[ROWS], list[ROWS], numbers[PROMPTS][WIDTH];
  packbuf_entry entries[ROWS];
} grpo;

/* order 0: the responses of a prompt side by side; 1: the prompts one after the other, again and again. */
static grpo *make_grpo(int order) {
  grpo *g = (grpo *)calloc(1, sizeof *g);
  int64_t prompt[PROMPTS][WIDTH];
  uint64_t at = 0;
  if (!g) abort();
  random_fill(prompt, sizeof prompt);
  random_fill(g->responses, sizeof g->responses);
  for (unsigned p = 0; p < PROMPTS; p++) {
    random_fill(g->pixels[p], PIXELS);
    memset(g->texts[p], 'a' + (int)p, sizeof g->texts[p]);
    g->media[p] = packbuf_media_of(g->pixels[p], PIXELS, "image/png");
    g->media[p].height = 10 + (int)p;
    g->items[p][0] = g->items[p][1] = packbuf_media_value(&g->media[p]);
    for (unsigned k = 0; k < WIDTH; k++) g->numbers[p][k] = packbuf_int((int64_t)k * (p + 1) % 97);
  }
  for (unsigned row = 0; row < ROWS; row++) {
    const unsigned p = order ? row % PROMPTS : row / RESPONSES;
    const uint64_t length = 20 + 5 * p;
    memcpy(g->ids[row], prompt[p], sizeof prompt[p]);
    memcpy(g->flat + at, prompt[p], (size_t)length * 8);
    at += length;
    g->offsets[row + 1] = (int64_t)at;
    g->response_shape[row] = 1 + random_below(LONGEST);
    g->response[row] =
        tensor_of(g->responses[row], packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), 1, &g->response_shape[row], NULL);
    g->text[row].data = g->texts[p];
    g->text[row].size = 200 + 10 * p;
    g->image[row] = packbuf_media_value(&g->media[p]);
    g->images[row] = row % 5 == 4 ? packbuf_null() : packbuf_list(g->items[p], 1 + p % 2);
    g->entries[row].key = packbuf_string("prompt");
    g->entries[row].value = row % 7 == 6 ? packbuf_null() : packbuf_string_n(g->texts[p], 200 + 10 * p);
    g->deep[row] = row % 11 == 10 ? packbuf_null() : packbuf_dict(&g->entries[row], row % 13 != 12);
    g->list[row] = packbuf_list(g->numbers[p], WIDTH - p);
  }
  return g;
}

/* Rows `first` to `first + rows` of all fields. */
static packbuf_status add_part(trip *t, const grpo *g, unsigned first, unsigned rows) {
  uint64_t shape[2] = {ROWS, WIDTH};
  const packbuf_tensor ids = tensor_of(g->ids[first], packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), 2, shape, NULL);
  packbuf_ragged ragged;
  packbuf_status status;
  shape[0] = rows;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = g->flat;
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  ragged.offset_bits = 64;
  ragged.items = (uint64_t)g->offsets[ROWS];
  ragged.offsets = g->offsets + first;
  status = packbuf_add_tensor(&t->batch, "ids", &ids, NULL, &t->error);
  if (!status) status = packbuf_add_ragged(&t->batch, "tokens", &ragged, &t->error);
  if (!status) status = packbuf_add_tensors(&t->batch, "responses", g->response + first, &t->error);
  if (!status) status = packbuf_add_strings(&t->batch, "text", g->text + first, &t->error);
  if (!status) status = packbuf_add_bytes(&t->batch, "bytes", g->text + first, &t->error);
  if (!status) status = packbuf_add_values(&t->batch, "image", g->image + first, &t->error);
  if (!status) status = packbuf_add_values(&t->batch, "images", g->images + first, &t->error);
  if (!status) status = packbuf_add_values(&t->batch, "meta", g->deep + first, &t->error);
  if (!status) status = packbuf_add_values(&t->batch, "list", g->list + first, &t->error);
  return status;
}

static packbuf_status add_grpo(trip *t, const grpo *g) { return add_part(t, g, 0, ROWS); }

static packbuf_status put_bytes(void *context, uint64_t offset, const void *bytes, size_t size) {
  memcpy((uint8_t *)context + offset, bytes, size);
  return PACKBUF_OK;
}

/* In parts, as segments and through a callback shared rows are the same bytes. */
static void test_writers(void) {
  grpo *g = make_grpo(0);
  trip t;
  packbuf_scatter scatter;
  packbuf_segment *segments;
  uint8_t *other, *staging, *at;
  uint32_t parts = 0;
  int good;
  begin(&t, ROWS, 1);
  good = !add_grpo(&t, g) && packs(&t);
  other = (uint8_t *)calloc(1, (size_t)t.size);
  good = good && other && packbuf_write_split(&t.batch, 3, &parts, NULL) == PACKBUF_OK;
  for (uint32_t part = parts; good && part-- > 0;)
    good = packbuf_write_part(&t.batch, part, other, t.size, NULL) == PACKBUF_OK;
  good = good && packbuf_write_finish(&t.batch, other, t.size, NULL, NULL) == PACKBUF_OK;
  tap_ok(good && memcmp(other, t.data, (size_t)t.size) == 0, "shared rows in %u parts", (unsigned)parts);
  memset(&scatter, 0, sizeof scatter);
  scatter.least = 64;
  good = packbuf_scatter_measure(&t.batch, &scatter, NULL) == PACKBUF_OK;
  segments = (packbuf_segment *)malloc((size_t)(scatter.count + 1) * sizeof *segments);
  staging = (uint8_t *)malloc((size_t)scatter.staging + 1);
  good = good && segments && staging && packbuf_scatter_list(&t.batch, &scatter, segments, staging, NULL) == PACKBUF_OK;
  memset(other, 0, (size_t)t.size);
  at = other;
  for (uint64_t i = 0; good && i < scatter.count; at += segments[i++].size)
    memcpy(at, segments[i].bytes, (size_t)segments[i].size);
  tap_ok(good && (uint64_t)(at - other) == t.size && memcmp(other, t.data, (size_t)t.size) == 0, "as %llu segments",
         (unsigned long long)scatter.count);
  memset(other, 0, (size_t)t.size);
  good = packbuf_write_through(&t.batch, put_bytes, other, 65536, NULL) == PACKBUF_OK;
  tap_ok(good && memcmp(other, t.data, (size_t)t.size) == 0, "through a callback");
  end(&t);
  free(segments);
  free(staging);
  free(other);
  free(g);
}

/* Fragments that share rows, made one: the bytes of the whole. */
static void test_concat(void) {
  enum { CUT = 37 };
  grpo *g = make_grpo(1);
  trip whole, part[2], joined;
  packbuf_view views[2];
  begin(&whole, ROWS, 1);
  begin(&part[0], CUT, 1);
  begin(&part[1], ROWS - CUT, 1);
  begin(&joined, 0, 1);
  tap_ok(!add_grpo(&whole, g) && packs(&whole) && !add_part(&part[0], g, 0, CUT) && packs(&part[0]) &&
             !add_part(&part[1], g, CUT, ROWS - CUT) && packs(&part[1]) && stored_rows(&part[0], "ids") == PROMPTS,
         "two fragments that share rows");
  views[0] = part[0].view;
  views[1] = part[1].view;
  tap_ok(packbuf_concat(views, 2, 0, &joined.arena, NULL, &joined.batch, &joined.error) == PACKBUF_OK &&
             packs(&joined) && joined.size == whole.size && memcmp(joined.data, whole.data, (size_t)whole.size) == 0,
         "give the bytes of the whole (%s: %s %s)", packbuf_status_name(joined.error.code), joined.error.path,
         joined.error.message ? joined.error.message : "");
  end(&whole);
  end(&part[0]);
  end(&part[1]);
  end(&joined);
  free(g);
}

static void test_grpo(int order) {
  static const char *const shared[] = {"ids", "tokens", "text", "image", "images", "meta.prompt", "list"};
  grpo *g = make_grpo(order);
  trip on, off;
  packbuf_column c;
  uint64_t a = 0, b = 1;
  begin(&on, ROWS, 1);
  begin(&off, ROWS, 0);
  tap_ok(!add_grpo(&on, g) && packs(&on) && !add_grpo(&off, g) && packs(&off), "a GRPO batch, order %d: packs", order);
  for (unsigned i = 0; i < sizeof shared / sizeof *shared; i++)
    tap_ok(stored_rows(&on, shared[i]) == PROMPTS, "%s: each of %d once", shared[i], PROMPTS);
  tap_ok(stored_rows(&on, "responses") == UINT64_MAX && !has_prefixes(&on, "responses"), "responses are not shared");
  tap_ok(stored_rows(&off, "ids") == UINT64_MAX, "nothing is, where sharing is off");
  tap_ok(same_rows(&on, &off), "the rows are the same");
  tap_ok(on.size < off.size / 3, "%llu bytes, not %llu", (unsigned long long)on.size, (unsigned long long)off.size);
  tap_ok(column(&on, "ids", &c) && !packbuf_stored_row(&c, 0, &a, NULL) &&
             !packbuf_stored_row(&c, order ? PROMPTS : 1, &b, NULL) && a == b,
         "equal rows have one stored row");
  tap_ok(column(&on, "images", &c) && !packbuf_stored_row(&c, 4, &a, NULL) && a == UINT64_MAX,
         "an absent one has none");
  tap_ok(column(&on, "images.height", &c) && c.node.rows == 12, "attributes stand once for each stored item");
  tap_ok(column(&on, "image.height", &c) && c.node.rows == ROWS, "those of media cells for each row");
  end(&on);
  end(&off);
  free(g);
}

/* ---- content decides, not where it lies ---- */

static void test_layouts(void) {
  enum { N = 200, T = 40 };
  static int32_t rows[N][T], wide[N][2 * T + 3];
  const uint64_t shape[2] = {N, T}, one[1] = {T};
  const int64_t strides[2] = {sizeof wide[0], 8}, step[1] = {8};
  packbuf_dtype i32 = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32);
  static packbuf_tensor plain[N], strided[N];
  static int32_t offsets[N + 1];
  packbuf_tensor dense = tensor_of(rows, i32, 2, shape, NULL), spread = tensor_of(wide, i32, 2, shape, strides);
  packbuf_ragged ragged;
  trip t[5];
  for (unsigned r = 0; r < N; r++) {
    if (r % 4) memcpy(rows[r], rows[r - 1], sizeof rows[r]);
    else random_fill(rows[r], sizeof rows[r]);
    for (unsigned k = 0; k < T; k++) wide[r][2 * k] = rows[r][k];
    plain[r] = tensor_of(rows[r], i32, 1, one, NULL);
    strided[r] = tensor_of(wide[r], i32, 1, one, step);
    offsets[r + 1] = (int32_t)(r + 1) * T;
  }
  memset(&ragged, 0, sizeof ragged);
  ragged.data = rows;
  ragged.dtype = i32;
  ragged.offset_bits = 32;
  ragged.items = N * T;
  ragged.offsets = offsets;
  for (unsigned i = 0; i < 5; i++) begin(&t[i], N, 1);
  (void)packbuf_add_tensor(&t[0].batch, "f", &dense, NULL, NULL);
  (void)packbuf_add_tensor(&t[1].batch, "f", &spread, NULL, NULL);
  (void)packbuf_add_tensors(&t[2].batch, "f", plain, NULL);
  (void)packbuf_add_tensors(&t[3].batch, "f", strided, NULL);
  (void)packbuf_add_ragged(&t[4].batch, "f", &ragged, NULL);
  tap_ok(packs(&t[0]) && stored_rows(&t[0], "f") == N / 4, "a dense array with equal rows keeps each once");
  tap_ok(packs(&t[1]) && t[1].size == t[0].size && !memcmp(t[0].data, t[1].data, (size_t)t[0].size),
         "and gives the same bytes from any strides");
  tap_ok(packs(&t[2]) && stored_rows(&t[2], "f") == N / 4, "so do rows that are tensors of their own");
  for (unsigned i = 3; i < 5; i++)
    tap_ok(packs(&t[i]) && t[i].size == t[2].size && !memcmp(t[2].data, t[i].data, (size_t)t[2].size),
           "in source %u too, byte for byte", i);
  for (unsigned i = 0; i < 5; i++) end(&t[i]);
}

/* ---- when it pays ---- */

/* Packs `count` byte strings of `size` bytes, the first `different` of them different, the rest like the first. */
static uint64_t share_bytes(unsigned count, unsigned different, size_t size, unsigned from, unsigned until) {
  packbuf_text *cells = (packbuf_text *)calloc(count, sizeof *cells);
  char *data = (char *)malloc((size_t)different * size);
  uint64_t stored;
  trip t;
  if (!cells || !data) abort();
  memset(data, 'x', (size_t)different * size);
  for (unsigned i = 0; i < different; i++) /* they differ in some bytes only */
    for (unsigned k = from; k < until; k++) data[(size_t)i * size + k] = (char)random_word();
  for (unsigned i = 0; i < count; i++) {
    cells[i].data = data + (size_t)(i < different ? i : 0) * size;
    cells[i].size = size;
  }
  begin(&t, count, 1);
  stored = !packbuf_add_bytes(&t.batch, "f", cells, NULL) && packs(&t) ? stored_rows(&t, "f") : 0;
  for (unsigned i = 0; stored && i < count; i++) {
    packbuf_column c;
    const void *bytes;
    uint64_t got;
    if (!column(&t, "f", &c) || packbuf_cell_bytes(&c, i, &bytes, &got, NULL) || got != size ||
        memcmp(bytes, cells[i].data, size) != 0)
      stored = 0;
  }
  end(&t);
  free(cells);
  free(data);
  return stored;
}

static void test_thresholds(void) {
  /* U - S = 4096 needs (count - different) size - 8 count >= 4096 */
  tap_ok(share_bytes(8, 4, 1040, 0, 8) == 4, "4096 bytes saved: shared");
  tap_ok(share_bytes(8, 4, 1039, 0, 8) == UINT64_MAX, "4092: not");
  tap_ok(share_bytes(40, 29, 800, 0, 8) == 29, "more than a quarter: shared");
  tap_ok(share_bytes(40, 30, 800, 0, 8) == UINT64_MAX, "less: not");
  tap_ok(share_bytes(512, 1, 11, 0, 8) == UINT64_MAX, "small cells: the index costs more");
  tap_ok(share_bytes(300, 100, 400, 200, 208) == 100, "rows that differ in the middle only are told apart");
  tap_ok(share_bytes(300, 100, 400, 392, 400) == 100, "at the end");
  tap_ok(share_bytes(300, 1, 400, 0, 8) == 1, "one row for all");
  tap_ok(share_bytes(2000, 1990, 64, 0, 16) == UINT64_MAX, "ten repeats among 2,000 are not looked for");
  tap_ok(share_bytes(5000, 500, 64, 0, 16) == 500, "many are");
}

static void test_options(void) {
  static char data[50][100];
  static packbuf_text cells[100];
  packbuf_options options = packbuf_default_options();
  packbuf_schema schema;
  trip t;
  memset(&schema, 0, sizeof schema);
  schema.path = "f";
  schema.flags = PACKBUF_KEEP_PLAIN;
  random_fill(data, sizeof data);
  for (unsigned i = 0; i < 100; i++) cells[i].data = data[i / 10], cells[i].size = 100;
  options.schemas = &schema;
  options.schema_count = 1;
  memset(&t, 0, sizeof t);
  packbuf_arena_init(&t.arena, NULL);
  (void)packbuf_batch_init(&t.batch, 100, &t.arena, &options, NULL);
  (void)packbuf_add_bytes(&t.batch, "f", cells, NULL);
  (void)packbuf_add_bytes(&t.batch, "g", cells, NULL);
  tap_ok(packs(&t) && stored_rows(&t, "f") == UINT64_MAX && stored_rows(&t, "g") == 10,
         "a zero-copy field keeps its rows, its neighbour shares");
  end(&t);
  options.row_sharing = 2;
  packbuf_arena_init(&t.arena, NULL);
  tap_ok(packbuf_batch_init(&t.batch, 1, &t.arena, &options, NULL) == PACKBUF_INVALID_ARGUMENT, "2 is no setting");
  end(&t);
}

/* ---- prefixes ---- */

enum { TURNS = 60, TURN = 37 };

/* An agent's growing context, as tensors (kind 0), rows by offsets (1), lists (2), arrays of which some are null (3),
 * strided tensors (4). */
static int add_growing(trip *t, unsigned kind, const int64_t *context, const packbuf_value *numbers) {
  static packbuf_tensor tensors[TURNS];
  static packbuf_value cells[TURNS];
  static uint64_t shapes[TURNS];
  static const int64_t stride[1] = {16};
  static int64_t offsets[TURNS], lengths[TURNS];
  packbuf_dtype i64 = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  packbuf_ragged ragged;
  for (unsigned i = 0; i < TURNS; i++) {
    shapes[i] = (uint64_t)(i % 20 + 1) * TURN; /* three agents, each 20 turns */
    offsets[i] = (int64_t)(i / 20) * 20 * TURN;
    lengths[i] = (int64_t)shapes[i];
    tensors[i] = tensor_of(context + (kind == 4 ? 2 : 1) * offsets[i], i64, 1, &shapes[i], kind == 4 ? stride : NULL);
    cells[i] = packbuf_list(numbers + offsets[i], (size_t)shapes[i]);
    if (kind == 3) {
      tensors[i].form = PACKBUF_FORM_ARRAY;
      cells[i] = i % 20 == 5 ? packbuf_null() : packbuf_tensor_value(&tensors[i]);
    }
  }
  if (kind == 0 || kind == 4) return packbuf_add_tensors(&t->batch, "f", tensors, &t->error) == PACKBUF_OK;
  if (kind > 1) return packbuf_add_values(&t->batch, "f", cells, &t->error) == PACKBUF_OK;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = context;
  ragged.dtype = i64;
  ragged.offset_bits = 64;
  ragged.items = 3 * 20 * TURN;
  ragged.offsets = offsets;
  ragged.lengths = lengths;
  return packbuf_add_ragged(&t->batch, "f", &ragged, &t->error) == PACKBUF_OK;
}

static void test_prefixes(unsigned kind) {
  static int64_t context[2 * 3 * 20 * TURN];
  static packbuf_value numbers[3 * 20 * TURN];
  trip on, off;
  packbuf_column c;
  packbuf_piece pieces[2];
  unsigned count = 0;
  uint64_t first = 0, size = 0, shape[PACKBUF_MAX_RANK], leaders = 0, length = 1;
  unsigned rank = 0;
  random_fill(context, sizeof context);
  for (unsigned i = 0; i < 3 * 20 * TURN; i++) numbers[i] = packbuf_int(context[i]);
  begin(&on, TURNS, 1);
  begin(&off, TURNS, 0);
  tap_ok(add_growing(&on, kind, context, numbers) && packs(&on) && add_growing(&off, kind, context, numbers) &&
             packs(&off),
         "growing contexts, source %u: pack", kind);
  tap_ok(column(&on, "f", &c) && has_prefixes(&on, "f") && !has_prefixes(&off, "f"), "prefixes are shared");
  for (uint64_t row = 0; row < TURNS; row++) {
    (void)packbuf_copy_elements(&on.view, &c.prefix_length, row, 1, &length, 8, NULL);
    leaders += length == 0;
  }
  tap_ok(kind == 3 ? leaders == 9 : leaders == 3, "the leaders are the longest rows (%llu)",
         (unsigned long long)leaders);
  tap_ok(c.data.count == 3 * 20 * TURN + (kind == 3 ? 3 * 5 * TURN : 0), "nothing is stored twice");
  tap_ok(same_rows(&on, &off), "the rows are the same");
  tap_ok(!packbuf_cell_pieces(&c, 0, pieces, &count, NULL) && count == 1 && pieces[0].count == TURN,
         "a whole prefix is one piece");
  tap_ok(!packbuf_cell_extent(&c, 0, &first, &size, NULL) && first == pieces[0].first && size == TURN,
         "its extent is its leader's first elements");
  tap_ok(!packbuf_cell_shape(&c, 3, &rank, shape, NULL) && rank == 1 && shape[0] == 4 * TURN, "shapes are whole");
  end(&on);
  end(&off);
}

/* A common prompt, then rows of their own: two pieces. */
static void test_two_pieces(void) {
  enum { N = 48, PROMPT = 200, REST = 50 };
  static float rows[N][PROMPT + REST], whole[PROMPT + REST];
  static packbuf_tensor tensors[N], both[2 * N];
  static const uint64_t shape[1] = {PROMPT + REST};
  packbuf_column c;
  packbuf_piece pieces[2];
  packbuf_error error;
  const void *bytes;
  uint64_t first, size;
  unsigned count = 0;
  int right = 1;
  trip t;
  random_fill(rows, sizeof rows);
  for (unsigned i = 0; i < N; i++) {
    if (i % 8) memcpy(rows[i], rows[i - 1], PROMPT * sizeof(float));
    tensors[i] = tensor_of(rows[i], packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32), 1, shape, NULL);
  }
  begin(&t, N, 1);
  tap_ok(
      !packbuf_add_tensors(&t.batch, "f", tensors, NULL) && packs(&t) && column(&t, "f", &c) && has_prefixes(&t, "f"),
      "groups of rows share their prompt");
  for (uint64_t row = 0; row < N; row++) {
    uint64_t at = 0;
    right &= !packbuf_cell_pieces(&c, row, pieces, &count, NULL) && count == (row % 8 ? 2 : 1);
    for (unsigned i = 0; i < count; at += pieces[i++].count)
      right &= !packbuf_copy_elements(&t.view, &c.data, pieces[i].first, pieces[i].count, whole + at,
                                      sizeof whole - at * sizeof *whole, NULL);
    right &= at == PROMPT + REST && memcmp(whole, rows[row], sizeof whole) == 0;
  }
  tap_ok(right, "the pieces are the rows");
  tap_ok(packbuf_cell_extent(&c, 1, &first, &size, &error) == PACKBUF_NOT_STORED && error.row == 1 &&
             packbuf_cell_bytes(&c, 1, &bytes, &size, NULL) == PACKBUF_NOT_STORED,
         "a cell in two pieces has no extent of its own");
  {
    trip twice, again;
    packbuf_view views[2];
    views[0] = views[1] = t.view;
    begin(&twice, 0, 1);
    begin(&again, 2 * N, 1);
    for (unsigned i = 0; i < N; i++) both[i] = both[N + i] = tensors[i];
    tap_ok(!packbuf_add_tensors(&again.batch, "f", both, NULL) && packs(&again) &&
               !packbuf_concat(views, 2, 0, &twice.arena, NULL, &twice.batch, NULL) && packs(&twice) &&
               twice.size == again.size && memcmp(twice.data, again.data, (size_t)again.size) == 0,
           "twice that, concatenated, is what packing it twice gives");
    end(&twice);
    end(&again);
  }
  end(&t);
}

/* ---- random batches, with and without ---- */

/* Rows of one size, with equal ends and equal checksums: differences that are multiples of its polynomial. The search
 * is not quadratic in them (which no test can assert: 2^15 rows took a minute), and finds all repeats. */
static void test_crafted(void) {
  enum { CRAFTED = 4096, LENGTH = 1024 };
  uint8_t *bytes = (uint8_t *)malloc((size_t)CRAFTED * LENGTH);
  packbuf_text *texts = (packbuf_text *)malloc(2 * CRAFTED * sizeof *texts);
  int good = bytes && texts;
  trip t;
  for (unsigned i = 0; good && i < CRAFTED; i++) {
    uint8_t *row = bytes + (size_t)i * LENGTH;
    memset(row, 'a', LENGTH);
    for (unsigned k = 0; k < 12; k++) {
      uint32_t crc = 1;
      for (int s = 0; s < 8; s++) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
      if ((i >> k & 1) == 0) continue;
      row[800 + 8 * k] ^= 1;
      for (unsigned byte = 0; byte < 4; byte++) row[801 + 8 * k + byte] ^= (uint8_t)(crc >> 8 * byte);
    }
    good = packbuf_checksum(0, row, LENGTH) == packbuf_checksum(0, bytes, LENGTH);
    texts[2 * i].data = texts[2 * i + 1].data = (const char *)row;
    texts[2 * i].size = texts[2 * i + 1].size = LENGTH;
  }
  begin(&t, 2 * CRAFTED, 1);
  good = good && packbuf_add_bytes(&t.batch, "x", texts, &t.error) == PACKBUF_OK && packs(&t) &&
         stored_rows(&t, "x") == CRAFTED;
  tap_ok(good, "%d rows with one checksum, twice: each is stored once", CRAFTED);
  end(&t);
  free(bytes), free(texts);
}

/* A broadcast array of 2^48 bytes, of which each row is one number: rows are compared without walking through them. */
static void test_broadcast(void) {
  int64_t numbers[4] = {1, 1, 2, 3}, strides[2] = {8, 0};
  uint64_t shape[2] = {4, (uint64_t)1 << 43}, size = 0;
  packbuf_tensor tensor;
  trip t;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = numbers, tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), tensor.rank = 2, tensor.shape = shape,
  tensor.strides = strides;
  begin(&t, 4, 1);
  tap_ok(packbuf_add_tensor(&t.batch, "x", &tensor, NULL, &t.error) == PACKBUF_OK &&
             packbuf_measure(&t.batch, &size, &t.error) == PACKBUF_OK && size > (uint64_t)1 << 48,
         "a broadcast array of 2^48 bytes is measured");
  end(&t);
  shape[1] = 1000, numbers[2] = 1;
  begin(&t, 4, 1);
  tap_ok(packbuf_add_tensor(&t.batch, "x", &tensor, NULL, &t.error) == PACKBUF_OK && packs(&t) &&
             stored_rows(&t, "x") == 2,
         "and its equal rows are found");
  end(&t);
}

static void test_random(unsigned cases) {
  unsigned same = 0, shared = 0, prefixed = 0;
  for (unsigned n = 0; n < cases; n++) {
    enum { MOST = 1500, POOL = 40 };
    static uint8_t pool[POOL][2000];
    static packbuf_tensor tensors[MOST];
    static packbuf_value cells[MOST];
    static uint64_t shapes[MOST];
    const unsigned rows = 1 + random_below(n % 10 ? 100 : MOST), different = 1 + random_below(POOL);
    const unsigned kind = random_below(3), least = random_below(300);
    trip on, off;
    for (unsigned i = 0; i < POOL; i++) {
      random_fill(pool[i], sizeof pool[i]);
      if (i && random_below(3)) memcpy(pool[i], pool[random_below(i)], random_below(sizeof pool[i]));
    }
    for (unsigned i = 0; i < rows; i++) {
      const unsigned p = random_below(different);
      shapes[i] = least + (random_below(3) ? p : random_below(150));
      tensors[i] = tensor_of(pool[p], packbuf_dtype_of(PACKBUF_DTYPE_UINT, kind == 2 ? 16 : 32), 1, &shapes[i], NULL);
      tensors[i].form = PACKBUF_FORM_ARRAY;
      cells[i] = kind ? packbuf_tensor_value(&tensors[i]) : packbuf_bytes(pool[p], (size_t)shapes[i] * 4);
      if (random_below(9) == 0) cells[i] = random_below(2) ? packbuf_null() : packbuf_missing();
    }
    begin(&on, rows, 1);
    begin(&off, rows, 0);
    (void)packbuf_add_values(&on.batch, "f", cells, NULL);
    (void)packbuf_add_values(&off.batch, "f", cells, NULL);
    same += packs(&on) && packs(&off) && same_rows(&on, &off) && on.size <= off.size;
    shared += stored_rows(&on, "f") != UINT64_MAX;
    prefixed += has_prefixes(&on, "f") != 0;
    end(&on);
    end(&off);
  }
  tap_ok(same == cases, "%u random batches read back the same, never larger", cases);
  tap_ok(shared > cases / 20 && prefixed > cases / 20, "%u share rows, %u prefixes", shared, prefixed);
}

/* ---- the i-th allocation fails ---- */

static void test_no_memory(void) {
  grpo *g = make_grpo(0);
  unsigned refused = 0, at = 0;
  for (;; at++) {
    failing f = failing_at(at, 0);
    packbuf_allocator allocator = failing_allocator(&f);
    packbuf_status status;
    packbuf_error error;
    trip t;
    memset(&t, 0, sizeof t);
    packbuf_arena_init(&t.arena, &allocator);
    status = packbuf_batch_init(&t.batch, ROWS, &t.arena, NULL, &error);
    if (!status) status = add_grpo(&t, g);
    if (!status) status = packbuf_pack(&t.batch, &t.data, &t.size, &error);
    end(&t);
    if (status == PACKBUF_OK) break;
    refused += status == PACKBUF_OUT_OF_MEMORY;
  }
  tap_ok(at > 3 && refused == at, "each of %u allocations may fail: OUT_OF_MEMORY", at);
  free(g);
}

/* ---- the sample data: how much of the tokens is shared ---- */

static void *read_file(const char *folder, const char *name, size_t *size) {
  char path[1024];
  FILE *file;
  long end_at;
  void *data;
  snprintf(path, sizeof path, "%s/batch_ragged/%s", folder, name);
  file = fopen(path, "rb");
  if (!file) return NULL;
  fseek(file, 0, SEEK_END);
  end_at = ftell(file);
  rewind(file);
  data = malloc((size_t)end_at);
  *size = data ? fread(data, 1, (size_t)end_at, file) : 0;
  fclose(file);
  return data;
}

/* The int64 elements of a .npy file, made native where they lie: the files are little-endian. */
static const int64_t *npy_elements(void *file, size_t size, uint64_t *count) {
  uint8_t *at = (uint8_t *)file;
  const size_t header = size < 10 ? 0 : 10u + at[8] + 256u * at[9];
  int64_t *elements = (int64_t *)(void *)(at + header);
  *count = (size - header) / 8;
  for (uint64_t i = 0; i < *count; i++) {
    uint64_t value = 0;
    for (unsigned k = 8; k-- > 0;) value = value << 8 | at[header + i * 8 + k];
    elements[i] = (int64_t)value;
  }
  return elements;
}

static void test_sample(const char *name, unsigned least) {
  const char *folder = getenv("PACKBUF_DATA");
  char path[64];
  size_t size = 0, offsets_size = 0;
  uint64_t count = 0, offset_count = 0, saved = 0;
  void *file, *offsets;
  packbuf_ragged ragged;
  packbuf_column c;
  trip on, off;
  if (!folder || !*folder) {
    tap_note("%s: no sample data: PACKBUF_DATA is not set", name);
    return;
  }
  snprintf(path, sizeof path, "%s/input_ids.npy", name);
  file = read_file(folder, path, &size);
  snprintf(path, sizeof path, "%s/input_ids_offsets.npy", name);
  offsets = read_file(folder, path, &offsets_size);
  if (!tap_ok(file && offsets, "%s: the sample is there", name)) return;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = npy_elements(file, size, &count);
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  ragged.offset_bits = 64;
  ragged.items = count;
  ragged.offsets = npy_elements(offsets, offsets_size, &offset_count);
  begin(&on, offset_count - 1, 1);
  begin(&off, offset_count - 1, 0);
  (void)packbuf_add_ragged(&on.batch, "input_ids", &ragged, NULL);
  (void)packbuf_add_ragged(&off.batch, "input_ids", &ragged, NULL);
  if (tap_ok(packs(&on) && packs(&off) && column(&on, "input_ids", &c), "%s: packs", name)) {
    saved = (count - c.data.count) * 1000 / count;
    tap_ok(same_rows(&on, &off), "%s: the same rows", name);
  }
  tap_ok(saved >= least, "%s: %llu.%llu %% of the tokens are stored once instead of again", name,
         (unsigned long long)saved / 10, (unsigned long long)saved % 10);
  end(&on);
  end(&off);
  free(file);
  free(offsets);
}

int main(void) {
  test_grpo(0);
  test_grpo(1);
  test_writers();
  test_concat();
  test_layouts();
  test_thresholds();
  test_options();
  for (unsigned kind = 0; kind < 5; kind++) test_prefixes(kind);
  test_two_pieces();
  test_crafted();
  test_broadcast();
  test_random(400);
  test_no_memory();
  test_sample("gsm8k", 340);
  test_sample("agent", 230);
  return tap_plan_done();
}
