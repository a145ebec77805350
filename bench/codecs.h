/* bench/codecs.h: what a codec is to this program, how one is checked and timed beside memcpy and a non-temporal copy
 * of the same bytes, and the two copies.
 * May use: columns.h, timing.h. Must not know: any other codec. */
#ifndef BENCH_CODECS_H
#define BENCH_CODECS_H

#include "columns.h"
#include "timing.h"

/* One thread's part of a case. */
typedef struct bench_job {
  const struct bench_codec *codec;
  const bench_column *column;
  const uint8_t *raw;
  size_t size;
  uint8_t *stored; /* room: bench_room(size); aligned to 64, as raw and out are */
  size_t stored_size;
  uint8_t *out;
  int stream; /* the destination is larger than the caches */
  uint32_t crc;
  uint8_t kept[64]; /* what a codec keeps from one run to the next; kept[0] is 0 before the first */
} bench_job;

typedef struct bench_codec {
  const char *name;
  const char *kernels; /* "" where that is the codec's own affair */
  int option;
  const void *set;
  int fast; /* 1: always timed at the full size, and with two threads */
  int main; /* 1: a quick run has it on every column, else on the tokens alone */
  int (*takes)(const struct bench_codec *codec, const bench_column *column); /* NULL: every column */
  void (*encode)(bench_job *job);
  void (*decode)(bench_job *job);
} bench_codec;

/* No codec here writes more than this. */
static size_t bench_room(size_t size) { return (size + size / 4 + ((size_t)2 << 20)) & ~(size_t)63; }

/* ---- copies ---- */

static void bench_memcpy(void *to, const void *from, size_t size) {
  memcpy(to, from, size);
  __asm__ volatile("" : : "r"(to) : "memory");
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx"))) static void bench_nt_copy(uint8_t *to, const uint8_t *from, size_t size) {
  const size_t whole = size & ~(size_t)63;
  for (size_t i = 0; i < whole; i += 64) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(from + i));
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(from + i + 32));
    _mm256_stream_si256((__m256i *)(void *)(to + i), a);
    _mm256_stream_si256((__m256i *)(void *)(to + i + 32), b);
  }
  _mm_sfence();
  memcpy(to + whole, from + whole, size - whole);
}
#else
static void bench_nt_copy(uint8_t *to, const uint8_t *from, size_t size) { bench_memcpy(to, from, size); }
#endif

static void bench_run_memcpy(void *context) {
  bench_job *job = (bench_job *)context;
  bench_memcpy(job->out, job->raw, job->size);
}

static void bench_run_nt_copy(void *context) {
  bench_job *job = (bench_job *)context;
  bench_nt_copy(job->out, job->raw, job->size);
}

static void bench_run_encode(void *context) {
  bench_job *job = (bench_job *)context;
  job->codec->encode(job);
}

static void bench_run_decode(void *context) {
  bench_job *job = (bench_job *)context;
  job->codec->decode(job);
}

/* ---- results: a line on stdout, an object of the JSON list ---- */

typedef struct bench_results {
  FILE *json; /* NULL: none */
  unsigned count;
} bench_results;

typedef struct bench_result {
  const char *op, *column, *what, *dtype, *kernels, *name;
  size_t bytes;
  unsigned threads;
  double seconds, x_memcpy, x_nt_copy, ratio, narrow_ratio; /* 0: not so */
} bench_result;

static void bench_print_size(size_t bytes) {
  if (bytes >= (size_t)1 << 20) printf("%zu MiB", bytes >> 20);
  else printf("%zu KiB", bytes >> 10);
}

/* 0: '-', as it was not measured. */
static void bench_print_cell(double value) {
  if (value > 0) printf(" %.2f |", value);
  else printf(" - |");
}

static void bench_put(bench_results *results, const bench_result *r) {
  const double speed = (double)r->bytes / r->seconds * 1e-9;
  printf("| %s | %s | ", r->op, r->column);
  if (r->bytes) bench_print_size(r->bytes);
  else printf("%.0f ns", r->seconds * 1e9);
  printf(" | %u | %s%s%s |", r->threads, r->name, *r->kernels ? ", " : "", r->kernels);
  bench_print_cell(speed);
  bench_print_cell(r->x_memcpy);
  bench_print_cell(r->x_nt_copy);
  bench_print_cell(r->ratio);
  bench_print_cell(r->narrow_ratio);
  printf("\n");
  fflush(stdout);
  if (!results->json) return;
  fprintf(
      results->json,
      "%s\n{\"op\": \"%s\", \"column\": \"%s\", \"what\": \"%s\", \"dtype\": \"%s\", \"bytes\": %zu, \"threads\": %u, "
      "\"kernels\": \"%s\", \"name\": \"%s\", \"gb_per_s\": %.3f, \"x_memcpy\": %.3f, \"x_nt_copy\": %.3f, "
      "\"stored_ratio\": %.4f, \"narrow_ratio\": %.4f, \"nanoseconds\": %.1f}",
      results->count++ ? "," : "", r->op, r->column, r->what ? r->what : "", r->dtype, r->bytes, r->threads, r->kernels,
      r->name, speed, r->x_memcpy, r->x_nt_copy, r->ratio, r->narrow_ratio, r->seconds * 1e9);
}

/* ---- one case ---- */

/* Memory of the largest case: the column tiled, its stored bytes, what is decoded. */
typedef struct bench_space {
  uint8_t *raw, *stored, *out;
} bench_space;

typedef struct bench_plan {
  size_t size;
  unsigned threads, rounds;
  int quick;
  double budget; /* seconds that the rounds of one case may take: slower codecs get fewer bytes */
  bench_space space;
} bench_plan;

static size_t bench_part(size_t size, unsigned parts, unsigned part) {
  const size_t stripe = (size_t)64 * 8192, all = size / stripe;
  return all < parts ? size / 8192 * part / parts * 8192 : all * part / parts * stripe;
}

/* Cuts a case among the threads; whole stripes where there are so many. */
static void bench_jobs(const bench_plan *plan, const bench_codec *codec, const bench_column *column, size_t size,
                       bench_job jobs[BENCH_THREADS]) {
  size_t room = 0;
  memset(jobs, 0, BENCH_THREADS * sizeof *jobs);
  for (unsigned i = 0; i < plan->threads; i++) {
    const size_t from = bench_part(size, plan->threads, i);
    const size_t to = i + 1 == plan->threads ? size : bench_part(size, plan->threads, i + 1);
    jobs[i].codec = codec;
    jobs[i].column = column;
    jobs[i].raw = plan->space.raw + from;
    jobs[i].out = plan->space.out + from;
    jobs[i].size = to - from;
    jobs[i].stored = plan->space.stored + room;
    jobs[i].stream = size >= (size_t)32 << 20;
    room += bench_room(to - from);
  }
}

/* Encodes, decodes and compares every byte; seconds of both together. */
static double bench_round_trip(bench_job *jobs, unsigned threads) {
  double seconds = 0;
  for (unsigned i = 0; i < threads; i++) {
    const double start = bench_now();
    jobs[i].codec->encode(&jobs[i]);
    seconds += bench_now() - start;
    memset(jobs[i].out, 0x5A, jobs[i].size);
    if (jobs[i].stored_size > bench_room(jobs[i].size)) {
      fprintf(stderr, "bench: %s: %s does not fit its room\n", jobs[i].column->name, jobs[i].codec->name);
      exit(1);
    }
    {
      const double again = bench_now();
      jobs[i].codec->decode(&jobs[i]);
      seconds += bench_now() - again;
    }
    if (memcmp(jobs[i].out, jobs[i].raw, jobs[i].size) == 0) continue;
    fprintf(stderr, "bench: %s: %s %s: the round trip changed bytes\n", jobs[i].column->name, jobs[i].codec->name,
            jobs[i].codec->kernels);
    exit(1);
  }
  return seconds;
}

/* The plan's size, or a quarter, a 16th or a 64th of it when all rounds took longer than the budget. */
static size_t bench_fitting_size(const bench_plan *plan, const bench_codec *codec, const bench_column *column) {
  const size_t trial = (size_t)4 << 20;
  size_t size = plan->size;
  bench_job jobs[BENCH_THREADS];
  double per_byte;
  if (codec->fast || plan->size <= trial) return plan->size;
  bench_jobs(plan, codec, column, trial, jobs);
  per_byte = bench_round_trip(jobs, plan->threads) / (double)trial * plan->rounds;
  while (size > trial && per_byte * (double)size > plan->budget) size /= 4;
  return size;
}

/* Times one codec on the column that lies tiled in plan->space.raw; the copies always at the plan's size. */
static void bench_case(const bench_plan *plan, const bench_codec *codec, const bench_column *column,
                       bench_results *results) {
  static bench_turns turns;
  bench_job jobs[BENCH_THREADS], copies[BENCH_THREADS];
  bench_result result;
  size_t stored = 0, size;
  double scale;
  if (codec->takes && !codec->takes(codec, column)) return;
  size = bench_fitting_size(plan, codec, column);
  scale = (double)size / (double)plan->size;
  bench_jobs(plan, codec, column, plan->size, copies);
  bench_jobs(plan, codec, column, size, jobs);
  bench_round_trip(jobs, plan->threads);
  for (unsigned i = 0; i < plan->threads; i++) stored += jobs[i].stored_size;
  memset(&turns, 0, sizeof turns);
  turns.threads = plan->threads;
  turns.rounds = plan->rounds;
  turns.operations = 4;
  turns.repeat = size >= (size_t)16 << 20 ? 1 : (unsigned)(((size_t)16 << 20) / size);
  if (!codec->fast) turns.repeat = 1;
  turns.run[0] = bench_run_memcpy;
  turns.run[1] = bench_run_encode;
  turns.run[2] = bench_run_nt_copy;
  turns.run[3] = bench_run_decode;
  for (unsigned i = 0; i < plan->threads; i++) {
    for (unsigned k = 0; k < 4; k++) turns.context[i][k] = k % 2 ? &jobs[i] : &copies[i];
  }
  bench_take_turns(&turns);
  memset(&result, 0, sizeof result);
  result.column = column->name, result.what = column->what, result.dtype = packbuf_dtype_name(column->dtype);
  result.kernels = codec->kernels, result.name = codec->name;
  result.bytes = size, result.threads = plan->threads;
  result.ratio = (double)size / (double)stored;
  result.narrow_ratio = result.ratio * column->narrow / column->unit;
  for (unsigned op = 1; op <= 3; op += 2) {
    result.op = op == 1 ? "encode" : "decode";
    result.seconds = bench_seconds(&turns, op);
    result.x_memcpy = bench_times(&turns, op, 0) * scale;
    result.x_nt_copy = bench_times(&turns, op, 2) * scale;
    bench_put(results, &result);
  }
}

#endif
