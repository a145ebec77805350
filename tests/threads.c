/* packbuf_threads.h: many threads write the bytes that one does; the pool serves batch after batch; errors are those of
 * the first part that fails. Also built with ThreadSanitizer by tests/threads.sh. */
#include "../packbuf_threads.h"
#include "batches.h"
#include "tap.h"

static int same_by_pool(packbuf_thread_pool *pool, mv_trip *trip) {
  uint8_t *space = (uint8_t *)malloc((size_t)trip->size);
  uint64_t size = 0;
  int good;
  memset(space, 0xa5, (size_t)trip->size);
  good = !packbuf_thread_pool_write(pool, &trip->batch, space, trip->size, &size, &trip->error) && size == trip->size &&
         memcmp(space, trip->data, (size_t)size) == 0;
  if (!good) tap_note("%s", mv_error(&trip->error));
  free(space);
  return good;
}

static void test_pools(void) {
  static const unsigned threads[] = {1, 2, 3, 16};
  packbuf_thread_pool pools[4];
  packbuf_error error;
  int good = 1;
  unsigned done = 0;
  for (unsigned i = 0; i < 4; i++) good = good && !packbuf_thread_pool_start(&pools[i], threads[i], &error);
  tap_ok(good && pools[0].count == 0 && pools[3].count == 15, "pools of 1, 2, 3 and 16 threads");
  for (; done < 12 && good; done++) {
    batches_pool pool = batches_make_pool();
    uint64_t rows = 200 + mv_below(400);
    mv_trip trip;
    mv_trip_begin(&trip, rows, NULL);
    good = !batches_fill(&trip.batch, &pool, rows, 6, &trip.error) && !mv_trip_pack(&trip);
    for (unsigned round = 0; round < 2 && good; round++)
      for (unsigned i = 0; i < 4; i++) good = good && same_by_pool(&pools[i], &trip);
    mv_trip_end(&trip);
    mv_free();
  }
  tap_ok(good, "%u batches, twice each by each pool: the bytes of packbuf_write", done);
  for (unsigned i = 0; i < 4; i++) packbuf_thread_pool_stop(&pools[i]);
}

static void test_errors(void) {
  enum { N = 8 << 20 };
  uint8_t *bools = (uint8_t *)mv_alloc(N);
  uint64_t shape[1] = {N}, size = 0;
  packbuf_tensor t = array_of(bools, packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), shape);
  packbuf_thread_pool pool;
  packbuf_error error;
  mv_trip trip;
  int good = 1;
  for (unsigned i = 0; i < N; i++) bools[i] = (uint8_t)(mv_random() >> 40 & 1);
  mv_trip_begin(&trip, N, NULL);
  tap_ok(!packbuf_add_tensor(&trip.batch, "x", &t, NULL, &trip.error) && !mv_trip_pack(&trip) &&
             !packbuf_thread_pool_start(&pool, 4, &trip.error),
         "8 MiB of bools");
  for (unsigned round = 0; round < 20 && good; round++) {
    unsigned first = 4000000 + mv_below(100);
    bools[first] = bools[7000000] = bools[5000000] = 2;
    memset(&error, 0, sizeof error);
    good = packbuf_thread_pool_write(&pool, &trip.batch, trip.data, trip.size, NULL, &error) == PACKBUF_BAD_BOOL &&
           error.row == first && packbuf_thread_pool_write(&pool, &trip.batch, trip.data, trip.size, NULL, NULL);
    bools[first] = bools[7000000] = bools[5000000] = 1;
    good = good && !packbuf_thread_pool_write(&pool, &trip.batch, trip.data, trip.size, NULL, &error);
  }
  tap_ok(good, "of three bad bools the first is named, always; the pool goes on");
  tap_ok(packbuf_thread_pool_write(&pool, &trip.batch, trip.data, trip.size - 1, &size, &error) == PACKBUF_CAPACITY &&
             size == trip.size &&
             packbuf_thread_pool_write(&pool, &trip.batch, NULL, trip.size, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "too small a destination, none: as packbuf_write says");
  packbuf_thread_pool_stop(&pool);
  tap_ok(packbuf_thread_pool_start(&pool, 0, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_thread_pool_start(&pool, PACKBUF_MAX_THREADS + 1, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_write_threads(&trip.batch, trip.data, trip.size, 0, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "no threads, too many: INVALID_ARGUMENT");
  mv_trip_end(&trip);
  mv_free();
}

/* Packed columns of 16 MiB, and a plain one: the bytes of packbuf_write. */
static void test_packed(void) {
  enum { N = 2 << 20 };
  int64_t *ids = (int64_t *)mv_alloc(N * sizeof *ids), *ramp = (int64_t *)mv_alloc(N * sizeof *ramp);
  float *noise = (float *)mv_alloc(N * sizeof *noise);
  uint64_t shape[1] = {N}, room = 0, size = 0, written = 0;
  packbuf_options options = packbuf_default_options();
  packbuf_tensor t;
  packbuf_thread_pool pool;
  mv_trip trip;
  uint8_t *one = NULL, *many = NULL;
  int good;
  for (unsigned i = 0; i < N; i++) {
    const uint32_t bits = (uint32_t)mv_random();
    ids[i] = mv_below(mv_below(2) ? 1000 : 150000);
    ramp[i] = i % 1000;
    memcpy(&noise[i], &bits, 4);
  }
  options.packing = PACKBUF_PACKING_BALANCED;
  memset(&t, 0, sizeof t);
  t.rank = 1;
  t.shape = shape;
  mv_trip_begin(&trip, N, &options);
  t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  t.data = ids;
  good = !packbuf_add_tensor(&trip.batch, "ids", &t, NULL, &trip.error);
  t.data = ramp;
  good = good && !packbuf_add_tensor(&trip.batch, "ramp", &t, NULL, &trip.error);
  t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
  t.data = noise;
  good = good && !packbuf_add_tensor(&trip.batch, "noise", &t, NULL, &trip.error) &&
         !packbuf_measure(&trip.batch, &room, &trip.error);
  one = (uint8_t *)malloc((size_t)room);
  many = (uint8_t *)malloc((size_t)room);
  good = good && !packbuf_write(&trip.batch, one, room, &size, &trip.error) && size * 2 < room;
  tap_ok(good, "packed columns of %llu bytes take %llu", (unsigned long long)room, (unsigned long long)size);
  for (unsigned threads = 1; threads <= 16 && good; threads *= 2) {
    good = !packbuf_thread_pool_start(&pool, threads, &trip.error);
    for (unsigned round = 0; round < 3 && good; round++) {
      memset(many, 0x5a, (size_t)room);
      good = !packbuf_thread_pool_write(&pool, &trip.batch, many, room, &written, &trip.error) && written == size &&
             memcmp(one, many, (size_t)size) == 0;
    }
    packbuf_thread_pool_stop(&pool);
  }
  tap_ok(good, "and the same by 1 to 16 threads%s%s", good ? "" : ": ", good ? "" : mv_error(&trip.error));
  free(one);
  free(many);
  mv_trip_end(&trip);
  mv_free();
}

static void test_one_call(void) {
  batches_pool pool = batches_make_pool();
  uint64_t shape[1] = {POOL};
  packbuf_tensor t = array_of(pool.bools, packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), shape);
  packbuf_value small = packbuf_int(7);
  int good = 1;
  mv_trip trip;
  mv_trip_begin(&trip, POOL, NULL);
  good = !packbuf_add_tensor(&trip.batch, "x", &t, NULL, &trip.error) && !mv_trip_pack(&trip);
  for (unsigned threads = 1; threads <= 16 && good; threads *= 2) {
    uint8_t *space = (uint8_t *)calloc(1, (size_t)trip.size);
    good = !packbuf_write_threads(&trip.batch, space, trip.size, threads, NULL, &trip.error) &&
           memcmp(space, trip.data, (size_t)trip.size) == 0;
    free(space);
  }
  mv_trip_end(&trip);
  tap_ok(good, "packbuf_write_threads by 1 to 16 threads");
  mv_trip_begin(&trip, 1, NULL);
  good = !packbuf_add_values(&trip.batch, "x", &small, &trip.error) && !mv_trip_pack(&trip) &&
         !packbuf_write_threads(&trip.batch, trip.data, trip.size, 16, NULL, &trip.error) &&
         !packbuf_verify(&trip.view, PACKBUF_LEVEL_FULL, &trip.error);
  mv_trip_end(&trip);
  mv_free();
  tap_ok(good, "a batch of one number, by 16 threads");
}

int main(void) {
  test_pools();
  test_errors();
  test_packed();
  test_one_call();
  return tap_plan_done();
}
