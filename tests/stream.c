/* Writing that never holds the whole buffer: through a callback (each byte once, the head last, any window), and as a
 * list of segments (sent with writev to a file and to a pipe). The bytes are those of packbuf_write. */
#define _DEFAULT_SOURCE
#include "../packbuf.h"
#include "batches.h"
#include "tap.h"

#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- a callback ---- */

typedef struct target {
  uint8_t *bytes, *seen;
  uint64_t size, longest, head;
  unsigned calls, fail_at;
  int good, closed;
} target;

static packbuf_status put(void *context, uint64_t offset, const void *bytes, size_t size) {
  target *t = (target *)context;
  if (t->calls++ == t->fail_at) return PACKBUF_READ_ONLY;
  if (t->closed || size == 0 || offset > t->size || size > t->size - offset) return PACKBUF_OUT_OF_RANGE;
  for (size_t i = 0; i < size; i++) t->good = t->good && !t->seen[offset + i]++;
  memcpy(t->bytes + offset, bytes, size);
  if (size > t->longest && offset) t->longest = size;
  t->closed = offset == 0;
  return PACKBUF_OK;
}

static int same_through(mv_trip *trip, uint64_t window, unsigned fail_at) {
  target t;
  packbuf_status status;
  uint64_t used = trip->arena.used;
  int good;
  memset(&t, 0, sizeof t);
  t.size = trip->size;
  t.fail_at = fail_at;
  t.good = 1;
  t.bytes = (uint8_t *)malloc((size_t)t.size);
  t.seen = (uint8_t *)calloc(1, (size_t)t.size);
  status = packbuf_write_through(&trip->batch, put, &t, window, &trip->error);
  if (t.calls > fail_at) good = status == PACKBUF_READ_ONLY && !t.closed && t.calls == fail_at + 1;
  else good = !status && t.closed && t.good && memcmp(t.bytes, trip->data, (size_t)t.size) == 0;
  good = good && trip->arena.used == used && (window < 200000 || t.longest <= window);
  if (!good) tap_note("window %u, failing at %u: %s", (unsigned)window, fail_at, mv_error(&trip->error));
  free(t.bytes);
  free(t.seen);
  return good;
}

/* ---- segments ---- */

static int same_segments(mv_trip *trip, uint64_t least, uint64_t most) {
  packbuf_scatter scatter;
  packbuf_segment *segments;
  uint8_t *staging;
  uint64_t at = 0;
  int good;
  memset(&scatter, 0, sizeof scatter);
  scatter.least = least;
  scatter.most = most;
  good = !packbuf_scatter_measure(&trip->batch, &scatter, &trip->error);
  segments = (packbuf_segment *)malloc((size_t)scatter.count * sizeof *segments + 1);
  staging = (uint8_t *)malloc((size_t)scatter.staging + 1);
  good = good && !packbuf_scatter_list(&trip->batch, &scatter, segments, staging, &trip->error);
  if (!good) tap_note("least %u, most %u: %s", (unsigned)least, (unsigned)most, mv_error(&trip->error));
  for (uint64_t i = 0; good && i < scatter.count; i++) {
    const uint8_t *bytes = (const uint8_t *)segments[i].bytes;
    int staged = bytes >= staging && bytes < staging + scatter.staging;
    good = segments[i].size && (!most || segments[i].size <= most) && segments[i].size <= trip->size - at &&
           memcmp(trip->data + at, bytes, (size_t)segments[i].size) == 0;
    if (!staged && !most) good = good && segments[i].size >= (least ? least : 4096);
    at += segments[i].size;
  }
  good = good && at == trip->size;
  free(segments);
  free(staging);
  return good;
}

static void test_random(unsigned batches) {
  uint64_t bytes = 0;
  unsigned done = 0;
  int through = 1, segments = 1;
  for (; done < batches && through && segments; done++) {
    batches_pool pool = batches_make_pool();
    packbuf_options options = packbuf_default_options();
    uint64_t rows = 1 + mv_below(done % 5 ? 300 : 2500);
    mv_trip trip;
    options.data_checksums = (uint8_t)(mv_below(3) != 0);
    options.alignment_exponent = (uint8_t)(6 + mv_below(7));
    mv_trip_begin(&trip, rows, &options);
    through = !batches_fill(&trip.batch, &pool, rows, 1 + mv_below(6), &trip.error) && !mv_trip_pack(&trip);
    if (!through) tap_note("%s", mv_error(&trip.error));
    through = through && same_through(&trip, 0, UINT32_MAX) && same_through(&trip, 1, UINT32_MAX) &&
              same_through(&trip, 4096 + mv_below(300000), UINT32_MAX) && same_through(&trip, 1, mv_below(20)) &&
              same_through(&trip, 300000, mv_below(4));
    segments = through && same_segments(&trip, 0, 0) && same_segments(&trip, 1, 0) &&
               same_segments(&trip, 1 + mv_below(20000), 1 + mv_below(30000)) && same_segments(&trip, UINT64_MAX, 0) &&
               same_segments(&trip, 100, UINT32_MAX);
    bytes += trip.size;
    mv_trip_end(&trip);
    mv_free();
  }
  tap_ok(through,
         "%u random batches of %llu bytes through a callback: each byte once, the head last, memory given back", done,
         (unsigned long long)bytes);
  tap_ok(segments, "and as segments: exactly as many as measured, the bytes of packbuf_write");
}

/* ---- what is not touched, not held ---- */

static void test_in_place(void) {
  batches_pool pool = batches_make_pool();
  uint64_t shape[1] = {POOL};
  packbuf_tensor t = array_of(pool.bools, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8), shape);
  packbuf_tensor b = array_of(pool.bools, packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), shape);
  packbuf_options options = packbuf_default_options();
  packbuf_scatter scatter;
  packbuf_segment segments[3];
  uint8_t *staging;
  mv_trip trip;
  options.data_checksums = 0;
  memset(&scatter, 0, sizeof scatter);
  mv_trip_begin(&trip, POOL, &options);
  tap_ok(!packbuf_add_tensor(&trip.batch, "x", &t, NULL, &trip.error) &&
             !packbuf_scatter_measure(&trip.batch, &scatter, &trip.error) && scatter.count == 2 &&
             scatter.staging < 1024,
         "an array of 3 MiB: two segments, the head and the array");
  staging = (uint8_t *)malloc((size_t)scatter.staging);
  tap_ok(!packbuf_scatter_list(&trip.batch, &scatter, segments, staging, &trip.error) &&
             segments[1].bytes == pool.bools && segments[1].size == POOL,
         "the second is the array itself");
  scatter.count--;
  tap_ok(packbuf_scatter_list(&trip.batch, &scatter, segments, staging, &trip.error) == PACKBUF_INVALID_ARGUMENT,
         "room for a segment too few: INVALID_ARGUMENT");
  scatter.count++, scatter.staging = 64;
  tap_ok(packbuf_scatter_list(&trip.batch, &scatter, segments, staging, &trip.error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_scatter_list(&trip.batch, &scatter, NULL, NULL, &trip.error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_scatter_measure(&trip.batch, NULL, &trip.error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_write_through(&trip.batch, NULL, NULL, 0, &trip.error) == PACKBUF_INVALID_ARGUMENT,
         "too little staging memory, nothing given: INVALID_ARGUMENT");
  mv_trip_end(&trip);
  free(staging);
  memset(&scatter, 0, sizeof scatter);
  mv_trip_begin(&trip, POOL, &options);
  pool.bools[2000001] = 2;
  staging = !packbuf_add_tensor(&trip.batch, "x", &b, NULL, &trip.error) &&
                    !packbuf_scatter_measure(&trip.batch, &scatter, &trip.error)
                ? (uint8_t *)malloc((size_t)scatter.staging)
                : NULL;
  tap_ok(staging && packbuf_scatter_list(&trip.batch, &scatter, segments, staging, &trip.error) == PACKBUF_BAD_BOOL &&
             trip.error.row == 2000001,
         "bools are looked at: BAD_BOOL with the row");
  free(staging);
  mv_trip_end(&trip);
  mv_free();
}

/* ---- writev ---- */

typedef struct reader {
  int from;
  uint8_t *bytes;
  size_t size, got;
} reader;

static void *read_all(void *context) {
  reader *r = (reader *)context;
  ssize_t n;
  while (r->got < r->size && (n = read(r->from, r->bytes + r->got, r->size - r->got)) > 0) r->got += (size_t)n;
  return NULL;
}

/* Writes all segments, 1024 at a time, whatever each call takes. */
static int write_segments(int to, const packbuf_segment *segments, uint64_t count) {
  struct iovec v[1024];
  uint64_t first = 0, skip = 0;
  while (first < count) {
    int n = 0;
    ssize_t wrote;
    for (; n < 1024 && first + (uint64_t)n < count; n++) {
      v[n].iov_base = (void *)((uintptr_t)segments[first + (uint64_t)n].bytes + (size_t)(n ? 0 : skip));
      v[n].iov_len = (size_t)(segments[first + (uint64_t)n].size - (n ? 0 : skip));
    }
    wrote = writev(to, v, n);
    if (wrote <= 0) return 0;
    for (skip += (uint64_t)wrote; first < count && skip >= segments[first].size; first++) skip -= segments[first].size;
  }
  return 1;
}

static int sent(mv_trip *trip, int to, reader *r) {
  packbuf_scatter scatter;
  packbuf_segment *segments;
  uint8_t *staging;
  pthread_t thread;
  int good;
  memset(&scatter, 0, sizeof scatter);
  scatter.least = 512;
  good = !packbuf_scatter_measure(&trip->batch, &scatter, &trip->error);
  segments = (packbuf_segment *)malloc((size_t)scatter.count * sizeof *segments + 1);
  staging = (uint8_t *)malloc((size_t)scatter.staging + 1);
  good = good && !packbuf_scatter_list(&trip->batch, &scatter, segments, staging, &trip->error);
  if (good && !r->got) good = pthread_create(&thread, NULL, read_all, r) == 0;
  good = good && write_segments(to, segments, scatter.count);
  tap_note("%u segments", (unsigned)scatter.count);
  if (good && r->from >= 0) good = pthread_join(thread, NULL) == 0;
  free(segments);
  free(staging);
  return good;
}

static void test_writev(void) {
  batches_pool pool = batches_make_pool();
  int ends[2];
  FILE *file = tmpfile();
  reader r;
  mv_trip trip;
  int good;
  mv_trip_begin(&trip, 2500, NULL);
  good = !batches_add_tensors(&trip.batch, &pool, "rows", 2500, &trip.error) &&
         !batches_add_texts(&trip.batch, &pool, "texts", 2500, &trip.error) && !mv_trip_pack(&trip) && pipe(ends) == 0;
  memset(&r, 0, sizeof r);
  r.from = good ? ends[0] : -1;
  r.size = (size_t)trip.size;
  r.bytes = (uint8_t *)calloc(1, r.size + 1);
  good = good && sent(&trip, ends[1], &r) && r.got == r.size && memcmp(r.bytes, trip.data, r.size) == 0;
  tap_ok(good, "through a pipe with writev: %u bytes", (unsigned)r.size);
  r.from = -1; /* no thread: the file is read afterwards */
  good = good && file && sent(&trip, fileno(file), &r) && lseek(fileno(file), 0, SEEK_END) == (off_t)r.size;
  memset(r.bytes, 0, r.size);
  good = good && pread(fileno(file), r.bytes, r.size, 0) == (ssize_t)r.size && memcmp(r.bytes, trip.data, r.size) == 0;
  tap_ok(good, "into a file with writev");
  if (file) fclose(file);
  free(r.bytes);
  mv_trip_end(&trip);
  mv_free();
}

int main(void) {
  const char *seed = getenv("PARTS_SEED");
  if (seed) mv_seed ^= strtoull(seed, NULL, 0) * 0x9E3779B97F4A7C15u;
  test_random(25);
  test_in_place();
  test_writev();
  return tap_plan_done();
}
