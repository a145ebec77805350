/* Measuring and writing: the exact size, too little capacity, any address, the bound before there is a batch, and
 * sources that change after they were measured: no byte past the end. */
#include "../packbuf.h"
#include "everything.h"

/* ---- exact size, capacity, address ---- */

static void test_exact(void) {
  everything *e = make_everything();
  packbuf_error error;
  packbuf_arena arena;
  packbuf_batch again;
  mv_trip trip;
  uint64_t size = 0, twice = 0;
  uint8_t *space;
  int good = 1;
  mv_trip_begin(&trip, ROWS, NULL);
  tap_ok(!add_everything(&trip.batch, e, &trip.error) && packs(&trip), "a batch of everything: %u bytes",
         (unsigned)trip.size);
  space = (uint8_t *)malloc((size_t)trip.size + 256);
  for (uint64_t capacity = 0; capacity < trip.size && good;
       capacity += capacity + 200 < trip.size ? 1 + capacity / 8 : 1) {
    memset(space, 0xa5, (size_t)trip.size + 256);
    size = 0;
    good = packbuf_write(&trip.batch, space, capacity, &size, &error) == PACKBUF_CAPACITY && size == trip.size &&
           error.needed == trip.size;
    for (uint64_t i = capacity; i < trip.size + 256 && good; i++) good = space[i] == 0xa5;
  }
  tap_ok(good, "too little capacity: CAPACITY, the size that is needed, no byte past the end");
  tap_ok(packbuf_write(&trip.batch, space, trip.size - 1, &size, &error) == PACKBUF_CAPACITY && size == trip.size &&
             error.code == PACKBUF_CAPACITY,
         "one byte too little: CAPACITY");
  tap_ok(packbuf_write(&trip.batch, NULL, trip.size, &size, &error) == PACKBUF_INVALID_ARGUMENT,
         "no destination: INVALID_ARGUMENT");
  for (unsigned shift = 0; shift < 64; shift++) {
    memset(space, 0xa5, (size_t)trip.size + 256);
    if (packbuf_write(&trip.batch, space + shift, trip.size + (shift & 1), NULL, &error) ||
        memcmp(space + shift, trip.data, (size_t)trip.size) != 0)
      good = 0;
    for (unsigned i = 0; i < shift; i++) good = good && space[i] == 0xa5;
    for (uint64_t i = shift + trip.size; i < trip.size + 256; i++) good = good && space[i] == 0xa5;
  }
  tap_ok(good, "any address: the same bytes, and none around them");
  for (unsigned shift = 1; shift < 8; shift++) {
    packbuf_view view;
    packbuf_value a, b;
    memmove(space + shift, trip.data, (size_t)trip.size);
    good = good && !packbuf_open(&view, space + shift, trip.size, PACKBUF_OPEN_EXACT, NULL, &error) &&
           !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
    good = good && !packbuf_read_row(&view, 7, &trip.back, &a, &error) &&
           !packbuf_read_row(&trip.view, 7, &trip.back, &b, &error) && mv_same(&a, &b);
  }
  tap_ok(good, "read at unaligned addresses: the same rows");
  packbuf_arena_init(&arena, NULL);
  good = !packbuf_batch_init(&again, ROWS, &arena, NULL, &error) && !add_everything(&again, e, &error) &&
         !packbuf_measure(&again, &size, &error) && !packbuf_measure(&again, &twice, &error);
  tap_ok(good && size == twice && size == trip.size, "measured twice, and another batch of the same: the same size");
  tap_ok(!packbuf_write(&again, space, size, NULL, &error) && memcmp(space, trip.data, (size_t)size) == 0 &&
             !packbuf_write(&again, space, size, NULL, &error) && memcmp(space, trip.data, (size_t)size) == 0,
         "written twice: the same bytes");
  {
    packbuf_value more = packbuf_int(1);
    packbuf_view view;
    tap_ok(!packbuf_add_batch_value(&again, "more", &more, &error) && !packbuf_measure(&again, &twice, &error) &&
               twice > size,
           "adding after measuring: measured anew");
    space = (uint8_t *)realloc(space, (size_t)twice);
    tap_ok(!packbuf_write(&again, space, twice, &size, &error) && size == twice &&
               !packbuf_open(&view, space, size, PACKBUF_OPEN_EXACT, NULL, &error) &&
               !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) && view.value_count == 2,
           "and written anew");
  }
  free(space);
  packbuf_arena_free(&arena);
  mv_trip_end(&trip);
  mv_free();
}

static void test_bound(void) {
  int good = 1;
  unsigned cases = 0;
  double worst = 0;
  for (; cases < 600 && good; cases++) {
    uint64_t fields = mv_below(5), rows = mv_below(40), rank_sum = 0, text = 0, bytes = 0, bound, size;
    char names[8][8];
    packbuf_error error;
    mv_trip trip;
    mv_trip_begin(&trip, rows, NULL);
    for (unsigned f = 0; f < fields; f++) {
      packbuf_dtype dtype = mv_dtype_at(mv_below(MV_DTYPES));
      uint64_t *shape = (uint64_t *)mv_alloc(8 * PACKBUF_MAX_RANK), count = 1;
      uint8_t *validity = (uint8_t *)mv_alloc(8);
      for (unsigned i = 0; i < 8; i++) validity[i] = (uint8_t)mv_random();
      text += (uint64_t)snprintf(names[f], sizeof names[f], "f%u", f);
      if (mv_below(3) == 0) {
        packbuf_tensor t;
        unsigned rank = 1 + mv_below(4);
        shape[0] = rows;
        for (unsigned d = 1; d < rank; d++) shape[d] = mv_below(5);
        for (unsigned d = 0; d < rank; d++) count *= shape[d];
        t = array_of(random_bytes((size_t)count * dtype.bits / 8, dtype), dtype, rank, shape, NULL,
                     PACKBUF_FORM_NATURAL);
        good = good && !packbuf_add_tensor(&trip.batch, names[f], &t, mv_below(2) ? validity : NULL, &error);
        text += 8 * (rank - 1);
        bytes += count * dtype.bits / 8;
      } else if (mv_below(2)) {
        packbuf_ragged r;
        int64_t *offsets = (int64_t *)mv_alloc((size_t)(rows + 1) * 8);
        memset(&r, 0, sizeof r);
        for (uint64_t i = 0; i <= rows; i++) offsets[i] = i ? offsets[i - 1] + (int64_t)mv_below(5) : 0;
        r.item_rank = (uint8_t)mv_below(3);
        for (unsigned d = 0; d < r.item_rank; d++) count *= shape[d] = 1 + mv_below(3);
        r.item_shape = shape;
        r.items = (uint64_t)offsets[rows];
        r.data = random_bytes((size_t)(count * r.items) * dtype.bits / 8, dtype);
        r.dtype = dtype;
        r.offset_bits = 64;
        r.offsets = offsets;
        r.validity = mv_below(2) ? validity : NULL;
        good = good && !packbuf_add_ragged(&trip.batch, names[f], &r, &error);
        rank_sum += r.item_rank + 1u;
        bytes += count * r.items * dtype.bits / 8;
      } else {
        packbuf_text *texts = (packbuf_text *)mv_alloc((size_t)(rows + 1) * sizeof *texts);
        for (uint64_t i = 0; i < rows; i++) {
          texts[i].data = mv_below(4) ? "abcdefghijklmnop" : NULL;
          texts[i].size = texts[i].data ? mv_below(17) : 0;
          bytes += texts[i].size;
        }
        good = good && !(mv_below(2) ? packbuf_add_strings : packbuf_add_bytes)(&trip.batch, names[f], texts, &error);
      }
      if (mv_below(3) == 0) {
        packbuf_add_metadata(&trip.batch, names[f], "key", "text", NULL);
        text += 7 + 32;
      }
    }
    bound = packbuf_bound(fields, rank_sum, rows, text, bytes);
    good = good && bound == PACKBUF_BOUND(fields, rank_sum, rows, text, bytes) &&
           !packbuf_measure(&trip.batch, &size, &trip.error) && size <= bound;
    if (good && size && (double)size / (double)bound > worst) worst = (double)size / (double)bound;
    if (!good)
      tap_note("%u fields, %u rows, rank sum %u, text %u, bytes %u: bound %u, size %u", (unsigned)fields,
               (unsigned)rows, (unsigned)rank_sum, (unsigned)text, (unsigned)bytes, (unsigned)bound, (unsigned)size);
    mv_trip_end(&trip);
    mv_free();
  }
  tap_ok(good, "the closed form bounds the size of %u random batches (at most %.0f %% of it), macro and function agree",
         cases, worst * 100);
  tap_ok(packbuf_bound(UINT64_MAX, 1, 1, 1, 1) == UINT64_MAX && packbuf_bound(1, 1, UINT64_MAX, 1, 1) == UINT64_MAX &&
             packbuf_bound(1, 1, 1, 1, UINT64_MAX) == UINT64_MAX &&
             packbuf_bound(1, UINT64_MAX, 1, 1, 1) == UINT64_MAX &&
             packbuf_bound(1, 1, 1, UINT64_MAX, 1) == UINT64_MAX &&
             packbuf_bound(1 << 20, 1 << 20, (uint64_t)1 << 34, 0, 0) >= ((uint64_t)1 << 54),
         "it saturates");
  {
    char space[PACKBUF_BOUND(1, 0, 10, 1, 80)]; /* a constant expression */
    int64_t numbers[10] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
    uint64_t ten[1] = {10};
    packbuf_tensor t = array_of(numbers, i64(), 1, ten, NULL, 0);
    mv_trip trip;
    mv_trip_begin(&trip, 10, NULL);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    tap_ok(packbuf_write(&trip.batch, space, sizeof space, NULL, &trip.error) == PACKBUF_OK,
           "the macro sizes an array");
    mv_trip_end(&trip);
  }
}

/* ---- sources that change ---- */

enum { CHANGES = 12 };
static const char *const change_names[CHANGES] = {
    "a dense array",          "a constant array",        "a text gets longer", "a text gets shorter",
    "a list gets shorter",    "a number in a JSON cell", "offsets move on",    "offsets go back",
    "an array's shape grows", "a media's size",          "a validity bitmap",  "all at once"};

static void change(everything *e, uint8_t *validity, packbuf_value *items, unsigned which) {
  switch (which) {
    case 0:
      for (unsigned i = 0; i < ROWS * 3; i++) e->dense[i] += 1;
      break;
    case 1: e->constant[ROWS / 2] = 2; break;
    case 2:
      e->texts[1].data = "a text of many more bytes than it had when it was measured, far more than the padding takes";
      e->texts[1].size = 80;
      break;
    case 3: e->texts[2].size = 1; break;
    case 4: e->lists[3].as.list.count = 1; break;
    case 5: items[2].as.i = 123456789012345; break;
    case 6:
      for (unsigned i = ROWS / 2; i <= ROWS; i++) e->offsets[i] += 2;
      break;
    case 7: e->offsets[ROWS] = 0; break;
    case 8: e->row_shapes[4][0] = 60; break;
    case 9: ((packbuf_media *)(uintptr_t)e->blobs[0].as.media)->size = 3; break;
    case 10: validity[0] = 0x55; break;
    default:
      for (unsigned i = 0; i < 11; i++) change(e, validity, items, i);
  }
}

static void test_changes(void) {
  for (unsigned which = 0; which < CHANGES; which++) {
    everything *e = make_everything();
    packbuf_value items[ROWS], json[ROWS];
    uint8_t validity[9], *space;
    packbuf_status s;
    packbuf_view view;
    mv_trip trip;
    uint64_t size = 0, at;
    int good;
    memset(validity, 0xfe, sizeof validity);
    for (unsigned i = 0; i < ROWS; i++) {
      items[i] = packbuf_int(i);
      json[i] = packbuf_list(items, i % 2 ? 3 : 0);
      if (i % 5 == 0) json[i] = packbuf_string("json");
    }
    mv_trip_begin(&trip, ROWS, NULL);
    good = !add_everything(&trip.batch, e, &trip.error) &&
           !packbuf_add_values(&trip.batch, "json", json, &trip.error) &&
           !packbuf_add_tensor(&trip.batch, "masked", &e->dense_of, validity, &trip.error) &&
           !packbuf_measure(&trip.batch, &size, &trip.error);
    change(e, validity, items, which);
    space = (uint8_t *)malloc((size_t)size + 64);
    memset(space, 0xa5, (size_t)size + 64);
    s = packbuf_write(&trip.batch, space, size, NULL, &trip.error);
    for (at = size; at < size + 64; at++) good = good && space[at] == 0xa5;
    if (s == PACKBUF_OK) good = good && !packbuf_open(&view, space, size, PACKBUF_OPEN_EXACT, NULL, &trip.error);
    else good = good && s == PACKBUF_INVALID_ARGUMENT;
    free(space);
    space = (uint8_t *)malloc((size_t)size); /* and where the sanitizer sees a byte too many */
    good = good && packbuf_write(&trip.batch, space, size, NULL, &trip.error) == s;
    tap_ok(good, "%s changes after measuring: %s, no byte past the end", change_names[which],
           s ? "refused" : "harmless");
    free(space);
    mv_trip_end(&trip);
    mv_free();
  }
}

/* The last buffer grows by far more than the padding behind it. */
enum { TEXT_GROWS, LIST_GROWS, ARRAY_GROWS, ITEM_GROWS, JSON_GROWS, MSGPACK_GROWS, OFFSETS_GROW, GROWTHS };
static const char *const growth_names[GROWTHS] = {
    "a text",      "a list of numbers",  "an array", "an item of a media list",
    "a JSON cell", "a MessagePack cell", "an offset"};

static void test_growth(void) {
  enum { N = 20, LONG = 3000 };
  static char letters[LONG], vast[300 << 10];
  static int32_t numbers[LONG];
  memset(letters, 'x', sizeof letters);
  memset(vast, 'x', sizeof vast);
  for (unsigned which = 0; which < GROWTHS; which++) {
    packbuf_text texts[N];
    packbuf_tensor rows[N];
    packbuf_value cells[N], items[N * 2], *many = (packbuf_value *)mv_alloc(LONG * sizeof *many);
    uint64_t shapes[N], size = 0;
    int32_t offsets[N + 1] = {0};
    packbuf_ragged r;
    packbuf_status s = PACKBUF_OK;
    uint8_t *space;
    mv_trip trip;
    int good = 1;
    memset(&r, 0, sizeof r);
    for (unsigned i = 0; i < LONG; i++) {
      many[i] = packbuf_int(i);
      numbers[i] = (int32_t)(i * i); /* else they were a constant */
    }
    for (unsigned i = 0; i < N; i++) {
      texts[i].data = letters;
      texts[i].size = 3 + i % 2;
      shapes[i] = 3 + i % 2;
      rows[i] = array_of(numbers, i32(), 1, shapes + i, NULL, 0);
      offsets[i + 1] = offsets[i] + 3 + (int32_t)(i % 2);
      items[2 * i] = which == MSGPACK_GROWS || which == ITEM_GROWS ? packbuf_bytes(letters, 3) : packbuf_string("abc");
      items[2 * i + 1] = which == ITEM_GROWS ? packbuf_bytes(letters, 4) : packbuf_int(1);
      if (i == 0 && (which == JSON_GROWS || which == MSGPACK_GROWS)) { /* more than is kept as it was measured */
        items[0].as.text.data = vast;
        items[0].as.text.size = sizeof vast;
      }
      cells[i] = which == LIST_GROWS ? packbuf_list(many, 3 + i % 2) : packbuf_list(items + 2 * i, 2);
    }
    r.data = numbers;
    r.dtype = i32();
    r.offset_bits = 32;
    r.offsets = offsets;
    r.items = LONG;
    mv_trip_begin(&trip, N, NULL);
    if (which == TEXT_GROWS) s = packbuf_add_strings(&trip.batch, "x", texts, &trip.error);
    else if (which == ARRAY_GROWS) s = packbuf_add_tensors(&trip.batch, "x", rows, &trip.error);
    else if (which == OFFSETS_GROW) s = packbuf_add_ragged(&trip.batch, "x", &r, &trip.error);
    else s = packbuf_add_values(&trip.batch, "x", cells, &trip.error);
    if (!s) s = packbuf_measure(&trip.batch, &size, &trip.error);
    good = s == PACKBUF_OK;
    texts[N - 1].size = LONG;
    shapes[N - 1] = LONG;
    offsets[N] = LONG;
    if (which == LIST_GROWS) cells[N - 1].as.list.count = LONG;
    else items[2 * N - 2].as.text.data = letters, items[2 * N - 2].as.text.size = LONG;
    space = (uint8_t *)malloc((size_t)size + 2 * LONG * 8);
    memset(space, 0xa5, (size_t)size + 2 * LONG * 8);
    s = packbuf_write(&trip.batch, space, size, NULL, &trip.error);
    good = good && s == PACKBUF_INVALID_ARGUMENT && strcmp(trip.error.path, "x") == 0;
    for (uint64_t at = size; at < size + 2 * LONG * 8; at++) good = good && space[at] == 0xa5;
    tap_ok(good, "%s at the end grows after measuring: refused, no byte past the end", growth_names[which]);
    free(space);
    mv_trip_end(&trip);
    mv_free();
  }
}

/* JSON and MessagePack that is small is encoded once, when it is measured: that is what is written. */
static void test_kept(void) {
  enum { CELLS = 20 };
  packbuf_value cells[CELLS], items[CELLS][2];
  packbuf_entry entry;
  mv_trip trip;
  uint64_t size = 0, written = 0;
  uint8_t *before, *after;
  packbuf_status s;
  for (unsigned i = 0; i < CELLS; i++) {
    items[i][0] = packbuf_string("abc");
    items[i][1] = packbuf_int(i);
    cells[i] = packbuf_list(items[i], 2);
  }
  entry.key = packbuf_int(1);
  entry.value = packbuf_bytes("abc", 3);
  cells[7] = packbuf_dict(&entry, 1);
  mv_trip_begin(&trip, CELLS, NULL);
  s = packbuf_add_values(&trip.batch, "x", cells, &trip.error);
  if (!s) s = packbuf_measure(&trip.batch, &size, &trip.error);
  before = (uint8_t *)malloc((size_t)size);
  after = (uint8_t *)malloc((size_t)size);
  if (!s) s = packbuf_write(&trip.batch, before, size, &written, &trip.error);
  items[3][0].as.text.size = 1;
  if (!s) s = packbuf_write(&trip.batch, after, size, &written, &trip.error);
  tap_ok(!s && written == size && memcmp(before, after, (size_t)size) == 0,
         "cells that change after measuring are written as they were measured");
  free(before);
  free(after);
  mv_trip_end(&trip);
  mv_free();
}

int main(void) {
  test_exact();
  test_bound();
  test_changes();
  test_growth();
  test_kept();
  mv_free();
  return tap_plan_done();
}
