/* Writing in parts: for random batches of every source and codec the bytes are those of packbuf_write, whatever the
 * number of parts, their order and the thread that writes them; nothing outside a part is touched. */
#include "../packbuf.h"
#include "batches.h"
#include "tap.h"

static packbuf_options random_options(void) {
  packbuf_options options = packbuf_default_options();
  options.data_checksums = (uint8_t)(mv_below(4) != 0);
  if (mv_below(3) == 0) options.alignment_exponent = (uint8_t)(6 + mv_below(7));
  return options;
}

static void shuffle(uint32_t *order, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) order[i] = i;
  for (uint32_t i = count; i > 1; i--) {
    uint32_t j = mv_below(i), swap = order[i - 1];
    order[i - 1] = order[j];
    order[j] = swap;
  }
}

/* Writes the batch in `wanted` parts in random order and compares. */
static int same_in_parts(mv_trip *trip, uint32_t wanted) {
  uint8_t *space = (uint8_t *)malloc((size_t)trip->size);
  uint32_t parts = 0, *order = NULL;
  int good;
  memset(space, 0xa5, (size_t)trip->size);
  good = !packbuf_write_split(&trip->batch, wanted, &parts, &trip->error) && parts <= wanted;
  if (good) {
    order = (uint32_t *)malloc((parts + 1) * sizeof *order);
    shuffle(order, parts);
  }
  for (uint32_t i = 0; i < parts && good; i++)
    good = !packbuf_write_part(&trip->batch, order[i], space, trip->size, &trip->error);
  good = good && !packbuf_write_finish(&trip->batch, space, trip->size, NULL, &trip->error);
  if (!good) tap_note("%u parts: %s", wanted, mv_error(&trip->error));
  for (uint64_t at = 0; good && at < trip->size; at++) {
    if (space[at] == trip->data[at]) continue;
    tap_note("%u parts (%u): byte %llu of %llu differs", wanted, parts, (unsigned long long)at,
             (unsigned long long)trip->size);
    good = 0;
  }
  free(order);
  free(space);
  return good;
}

static void test_random(unsigned batches) {
  static const uint32_t counts[] = {1, 2, 3, 16};
  uint64_t bytes = 0, most = 0;
  unsigned done = 0;
  int good = 1;
  for (; done < batches && good; done++) {
    batches_pool pool = batches_make_pool();
    packbuf_options options = random_options();
    uint64_t rows = 1 + mv_below(done % 5 == 0 ? 2500 : done % 5 == 1 ? 6 : 300);
    mv_trip trip;
    mv_trip_begin(&trip, rows, &options);
    good = !batches_fill(&trip.batch, &pool, rows, 1 + mv_below(6), &trip.error) && !mv_trip_pack(&trip);
    if (!good) tap_note("batch %u: %s: %s", done, trip.step ? trip.step : "add", mv_error(&trip.error));
    for (unsigned i = 0; i < 4 && good; i++) good = same_in_parts(&trip, counts[i]);
    for (unsigned i = 0; i < 2 && good; i++) good = same_in_parts(&trip, 1 + mv_below(100));
    bytes += trip.size;
    if (trip.size > most) most = trip.size;
    mv_trip_end(&trip);
    mv_free();
  }
  tap_ok(good,
         "%u random batches of %llu bytes, the largest of %llu: the same in 1, 2, 3, 16 and random numbers of parts",
         done, (unsigned long long)bytes, (unsigned long long)most);
}

/* Each kind of field alone and large, so that many borders fall into it. */
static void test_each(void) {
  typedef packbuf_status (*adder)(packbuf_batch *, const batches_pool *, const char *, uint64_t, packbuf_error *);
  static const adder adders[] = {batches_add_dense, batches_add_ragged, batches_add_tensors, batches_add_texts,
                                 batches_add_values};
  static const char *const names[] = {"dense", "ragged", "tensors", "texts", "values"};
  for (unsigned which = 0; which < 5; which++) {
    int good = 1;
    for (unsigned round = 0; round < (which == 4 ? 24u : 8u) && good; round++) {
      batches_pool pool = batches_make_pool();
      mv_trip trip;
      mv_trip_begin(&trip, 500, NULL);
      good = !adders[which](&trip.batch, &pool, "x", 500, &trip.error) && !mv_trip_pack(&trip);
      if (!good) tap_note("%s", mv_error(&trip.error));
      good = good && same_in_parts(&trip, 2) && same_in_parts(&trip, 33) && same_in_parts(&trip, 1000);
      mv_trip_end(&trip);
      mv_free();
    }
    tap_ok(good, "%s, alone and cut often", names[which]);
  }
}

/* A part leaves the rest alone. */
static void test_bounds(void) {
  batches_pool pool = batches_make_pool();
  uint64_t shape[1] = {POOL / 8};
  const packbuf_tensor t = array_of(pool.bytes, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), shape);
  uint32_t parts = 0;
  uint8_t *space, *count;
  int good = 1;
  mv_trip trip;
  mv_trip_begin(&trip, shape[0], NULL);
  tap_ok(packbuf_write_part(&trip.batch, 0, &parts, 4, &trip.error) == PACKBUF_INVALID_ARGUMENT,
         "a part before packbuf_write_split: INVALID_ARGUMENT");
  tap_ok(packbuf_write_finish(&trip.batch, &parts, 4, NULL, &trip.error) == PACKBUF_INVALID_ARGUMENT,
         "the head of a batch that is not measured: INVALID_ARGUMENT");
  tap_ok(!packbuf_add_tensor(&trip.batch, "x", &t, NULL, &trip.error) && !mv_trip_pack(&trip) &&
             !packbuf_write_split(&trip.batch, 7, &parts, &trip.error) && parts == 7,
         "3 MiB in 7 parts");
  space = (uint8_t *)malloc((size_t)trip.size);
  count = (uint8_t *)calloc(1, (size_t)trip.size);
  for (unsigned fill = 0; fill < 2; fill++) /* a byte written keeps its value under both fillings */
    for (uint32_t i = 0; i < parts; i++) {
      uint64_t written = 0;
      memset(space, fill ? 0x5a : 0xa5, (size_t)trip.size);
      good = good && !packbuf_write_part(&trip.batch, i, space, trip.size, &trip.error);
      for (uint64_t at = 0; at < trip.size; at++)
        if (space[at] != (fill ? 0x5a : 0xa5)) count[at] |= (uint8_t)(1u << i), written++;
      good = good && written > trip.size / 14 && written < trip.size / 5;
    }
  for (uint64_t at = trip.view.head_length; at < trip.size; at++)
    good = good && count[at] && !(count[at] & (count[at] - 1));
  for (uint64_t at = 0; at < trip.view.head_length; at++) good = good && !count[at];
  tap_ok(good, "each byte after the head is written by one part, and all parts are about as large");
  tap_ok(packbuf_write_part(&trip.batch, 7, space, trip.size, &trip.error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_write_part(&trip.batch, 0, space, trip.size - 1, &trip.error) == PACKBUF_CAPACITY &&
             trip.error.needed == trip.size &&
             packbuf_write_finish(&trip.batch, space, trip.size - 1, NULL, &trip.error) == PACKBUF_CAPACITY &&
             trip.error.needed == trip.size &&
             packbuf_write_split(&trip.batch, 0, &parts, &trip.error) == PACKBUF_INVALID_ARGUMENT,
         "a part too many, too small a destination, no parts: refused");
  free(space);
  free(count);
  mv_trip_end(&trip);
  mv_free();
}

static void test_empty(void) {
  uint32_t parts = 9;
  mv_trip trip;
  mv_trip_begin(&trip, 0, NULL);
  tap_ok(!mv_trip_pack(&trip) && !packbuf_write_split(&trip.batch, 4, &parts, &trip.error) && parts == 0 &&
             same_in_parts(&trip, 4),
         "a batch of nothing has no parts, only a head");
  mv_trip_end(&trip);
}

/* Errors of parts name the field and the row. */
static void test_errors(void) {
  enum { N = 1 << 20 };
  uint8_t *bools = (uint8_t *)mv_alloc(N);
  uint64_t shape[1] = {N};
  const packbuf_tensor t = array_of(bools, packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), shape);
  uint32_t parts = 0, failed = 0;
  packbuf_error error;
  mv_trip trip;
  for (unsigned i = 0; i < N; i++) bools[i] = (uint8_t)(mv_random() >> 40 & 1);
  mv_trip_begin(&trip, N, NULL);
  tap_ok(!packbuf_add_tensor(&trip.batch, "a.b", &t, NULL, &trip.error) && !mv_trip_pack(&trip) &&
             !packbuf_write_split(&trip.batch, 5, &parts, &trip.error),
         "1 MiB of bools");
  bools[700000] = 2;
  for (uint32_t i = 0; i < parts; i++) {
    if (!packbuf_write_part(&trip.batch, i, trip.data, trip.size, &error)) continue;
    failed++;
    tap_ok(error.code == PACKBUF_BAD_BOOL && error.row == 700000 && strcmp(error.path, "a\\.b") == 0,
           "the part with a bool byte of 2 names its row and the path: %s", mv_error(&error));
  }
  tap_ok(failed == 1, "the other parts are written");
  mv_trip_end(&trip);
  mv_free();
}

int main(void) {
  const char *seed = getenv("PARTS_SEED");
  if (seed) mv_seed ^= strtoull(seed, NULL, 0) * 0x9E3779B97F4A7C15u;
  test_random(30);
  test_each();
  test_bounds();
  test_empty();
  test_errors();
  return tap_plan_done();
}
