/* bench/bench.c: what packing, opening, finding and inferring cost, each beside the plain thing it is compared with.
 * One run, the two sides of a pair in turn, medians of 15, thread CPU time, memory touched before. Prints a table; the
 * ratios are what counts.
 * May use: packbuf.h. Must not know: its inside. */
#define _POSIX_C_SOURCE 200809L
#define PACKBUF_IMPLEMENTATION
#include "../packbuf_threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RUNS = 15 };

typedef struct pair {
  void (*ours)(void *context);
  void (*theirs)(void *context);
  void *context;
} pair;

static packbuf_error error;

static void check(packbuf_status status) {
  char line[512];
  if (!status) return;
  packbuf_error_format(&error, line, sizeof line);
  fprintf(stderr, "bench: %s\n", line);
  exit(1);
}

static void *must(void *memory) {
  if (memory) return memory;
  fprintf(stderr, "bench: out of memory\n");
  exit(1);
}

static clockid_t watch = CLOCK_THREAD_CPUTIME_ID;

static double now(void) {
  struct timespec t;
  clock_gettime(watch, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double median(double *times) {
  qsort(times, RUNS, sizeof *times, ascending);
  return times[RUNS / 2];
}

/* Seconds of both sides: medians of interleaved runs, after one run of each that does not count. */
static void measure(const pair *p, double *ours, double *theirs) {
  double a[RUNS], b[RUNS];
  p->ours(p->context);
  if (p->theirs) p->theirs(p->context);
  for (int i = 0; i < RUNS; i++) {
    double t = now();
    p->ours(p->context);
    a[i] = now() - t;
    t = now();
    if (p->theirs) p->theirs(p->context);
    b[i] = now() - t;
  }
  *ours = median(a);
  *theirs = median(b);
}

static uint64_t random_state = 88172645463325252u;

static uint64_t random64(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

/* ---- packbuf_write against memcpy of the same rows ---- */

typedef struct rows_case {
  packbuf_batch batch;
  packbuf_arena arena;
  packbuf_tensor *tensors;
  uint64_t *shapes, rows, bytes, size;
  uint8_t *source, *packed, *copied;
} rows_case;

static void write_rows(void *context) {
  rows_case *c = (rows_case *)context;
  check(packbuf_write(&c->batch, c->packed, c->size, NULL, &error));
}

static void copy_rows(void *context) {
  rows_case *c = (rows_case *)context;
  uint8_t *to = c->copied;
  for (uint64_t i = 0; i < c->rows; i++) {
    memcpy(to, c->tensors[i].data, (size_t)c->shapes[i] * 8);
    to += c->shapes[i] * 8;
  }
}

/* `rows` ragged rows of int64 that average `average` bytes, in shuffled places; measured once, written again and
 * again. */
static void bench_write(uint64_t rows, uint64_t average, int checksums) {
  packbuf_options options = packbuf_default_options();
  rows_case c;
  uint64_t *order = (uint64_t *)must(malloc(rows * 8)), total = 0;
  double ours, theirs;
  pair p = {write_rows, copy_rows, NULL};
  p.context = &c;
  options.data_checksums = (uint8_t)checksums;
  memset(&c, 0, sizeof c);
  c.rows = rows;
  c.tensors = (packbuf_tensor *)must(calloc(rows, sizeof *c.tensors));
  c.shapes = (uint64_t *)must(calloc(rows, 8));
  c.source = (uint8_t *)must(malloc(rows * average * 2));
  for (uint64_t i = 0; i < rows * average * 2 / 8; i++) ((uint64_t *)(void *)c.source)[i] = random64() % 151936;
  for (uint64_t i = 0; i < rows; i++) order[i] = i;
  for (uint64_t i = rows - 1; i > 0; i--) {
    uint64_t j = random64() % (i + 1), swap = order[i];
    order[i] = order[j];
    order[j] = swap;
  }
  for (uint64_t i = 0; i < rows; i++) {
    c.shapes[i] = (average / 2 + random64() % average) / 8;
    c.tensors[i].data = c.source + order[i] * average * 2;
    c.tensors[i].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
    c.tensors[i].rank = 1;
    c.tensors[i].shape = &c.shapes[i];
    total += c.shapes[i] * 8;
  }
  packbuf_arena_init(&c.arena, NULL);
  check(packbuf_batch_init(&c.batch, rows, &c.arena, &options, &error));
  check(packbuf_add_tensors(&c.batch, "input_ids", c.tensors, &error));
  check(packbuf_measure(&c.batch, &c.size, &error));
  c.packed = (uint8_t *)must(aligned_alloc(64, (size_t)((c.size + 63) / 64 * 64)));
  c.copied = (uint8_t *)must(aligned_alloc(64, (size_t)((total + 63) / 64 * 64)));
  measure(&p, &ours, &theirs);
  printf("| packbuf_write, %llu ragged rows of %llu KiB, %s | %.1f GB/s | memcpy of each row | %.1f GB/s | %.2f |\n",
         (unsigned long long)rows, (unsigned long long)(average / 1024), checksums ? "checksums" : "no checksums",
         1e-9 * (double)total / ours, 1e-9 * (double)total / theirs, ours / theirs);
  free(order);
  free(c.tensors);
  free(c.shapes);
  free(c.source);
  free(c.packed);
  free(c.copied);
  packbuf_arena_free(&c.arena);
}

typedef struct dense_case {
  packbuf_batch batch;
  uint8_t *source, *packed, *copied;
  uint64_t size, total, shape[2];
} dense_case;

static void write_dense(void *context) {
  dense_case *c = (dense_case *)context;
  check(packbuf_write(&c->batch, c->packed, c->size, NULL, &error));
}

static void copy_dense(void *context) {
  dense_case *c = (dense_case *)context;
  memcpy(c->copied, c->source, (size_t)c->total);
}

static void start_dense(dense_case *c, packbuf_arena *arena, uint64_t bytes, int checksums) {
  packbuf_options options = packbuf_default_options();
  packbuf_tensor tensor;
  options.data_checksums = (uint8_t)checksums;
  memset(c, 0, sizeof *c);
  memset(&tensor, 0, sizeof tensor);
  c->total = bytes;
  c->source = (uint8_t *)must(malloc(bytes));
  for (uint64_t i = 0; i < bytes / 8; i++) ((uint64_t *)(void *)c->source)[i] = random64() % 151936;
  c->shape[0] = 256;
  c->shape[1] = bytes / 8 / 256;
  tensor.data = c->source;
  tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  tensor.rank = 2;
  tensor.shape = c->shape;
  packbuf_arena_init(arena, NULL);
  check(packbuf_batch_init(&c->batch, 256, arena, &options, &error));
  check(packbuf_add_tensor(&c->batch, "input_ids", &tensor, NULL, &error));
  check(packbuf_measure(&c->batch, &c->size, &error));
  c->packed = (uint8_t *)must(aligned_alloc(64, (size_t)c->size));
}

static void end_dense(dense_case *c, packbuf_arena *arena) {
  free(c->source);
  free(c->packed);
  free(c->copied);
  packbuf_arena_free(arena);
}

static void bench_dense(uint64_t bytes, int checksums) {
  packbuf_arena arena;
  dense_case c;
  double ours, theirs;
  pair p = {write_dense, copy_dense, NULL};
  start_dense(&c, &arena, bytes, checksums);
  c.copied = (uint8_t *)must(aligned_alloc(64, (size_t)bytes));
  p.context = &c;
  measure(&p, &ours, &theirs);
  printf("| packbuf_write, dense, %llu MiB, %s | %.1f GB/s | memcpy | %.1f GB/s | %.2f |\n",
         (unsigned long long)(bytes >> 20), checksums ? "checksums" : "no checksums", 1e-9 * (double)bytes / ours,
         1e-9 * (double)bytes / theirs, ours / theirs);
  end_dense(&c, &arena);
}

/* ---- two threads against one, by the clock on the wall ---- */

typedef struct threads_case {
  packbuf_thread_pool pool;
  dense_case *dense;
} threads_case;

static void write_by_two(void *context) {
  threads_case *c = (threads_case *)context;
  check(packbuf_thread_pool_write(&c->pool, &c->dense->batch, c->dense->packed, c->dense->size, NULL, &error));
}

static void write_by_one(void *context) { write_dense(((threads_case *)context)->dense); }

static void start_threads(void *context) {
  packbuf_thread_pool pool;
  (void)context;
  check(packbuf_thread_pool_start(&pool, 2, &error));
  packbuf_thread_pool_stop(&pool);
}

static void bench_threads(int checksums) {
  dense_case dense;
  threads_case c;
  packbuf_arena arena;
  double two, one;
  pair p = {write_by_two, write_by_one, NULL}, start = {start_threads, NULL, NULL};
  start_dense(&dense, &arena, (uint64_t)256 << 20, checksums);
  c.dense = &dense;
  p.context = &c;
  check(packbuf_thread_pool_start(&c.pool, 2, &error));
  watch = CLOCK_MONOTONIC;
  measure(&p, &two, &one);
  printf("| two threads, dense, 256 MiB, %s | %.1f GB/s | one thread | %.1f GB/s | %.2f (%.2f x) |\n",
         checksums ? "checksums" : "no checksums", 1e-9 * (double)dense.total / two, 1e-9 * (double)dense.total / one,
         two / one, one / two);
  if (!checksums) {
    measure(&start, &two, &one);
    printf("| starting and ending a second thread | %.0f us | | | |\n", 1e6 * two);
  }
  watch = CLOCK_THREAD_CPUTIME_ID;
  packbuf_thread_pool_stop(&c.pool);
  end_dense(&dense, &arena);
}

/* ---- packbuf_open against the checksum of its head; a field by name ---- */

enum { FIELDS = 1000, REPEAT = 100 };

typedef struct open_case {
  void *packed;
  uint64_t size, head;
  packbuf_view view;
  char (*names)[24];
  uint32_t sink;
} open_case;

static void open_it(void *context) {
  open_case *c = (open_case *)context;
  for (int i = 0; i < REPEAT; i++) check(packbuf_open(&c->view, c->packed, c->size, PACKBUF_OPEN_EXACT, NULL, &error));
}

static void checksum_it(void *context) {
  open_case *c = (open_case *)context;
  for (int i = 0; i < REPEAT; i++) c->sink += packbuf_checksum(0, c->packed, (size_t)c->head);
}

static void find_fields(void *context) {
  open_case *c = (open_case *)context;
  packbuf_node node;
  for (int i = 0; i < FIELDS; i++) {
    check(packbuf_find(&c->view, 0, c->names[(i * 7919) % FIELDS], &node, &error));
    c->sink += node.index;
  }
}

static void bench_open(void) {
  static int64_t column[FIELDS][64];
  open_case c;
  uint64_t shape[1] = {64};
  packbuf_arena arena;
  packbuf_batch batch;
  double ours, theirs, found, nothing;
  pair p = {open_it, checksum_it, NULL}, q = {find_fields, NULL, NULL};
  p.context = q.context = &c;
  memset(&c, 0, sizeof c);
  c.names = (char(*)[24])must(calloc(FIELDS, sizeof *c.names));
  packbuf_arena_init(&arena, NULL);
  check(packbuf_batch_init(&batch, 64, &arena, NULL, &error));
  for (int i = 0; i < FIELDS; i++) {
    packbuf_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    for (int j = 0; j < 64; j++) column[i][j] = i * 64 + j * j;
    snprintf(c.names[i], sizeof c.names[i], "field_%d", i);
    tensor.data = column[i];
    tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
    tensor.rank = 1;
    tensor.shape = shape;
    check(packbuf_add_tensor(&batch, c.names[i], &tensor, NULL, &error));
  }
  check(packbuf_pack(&batch, &c.packed, &c.size, &error));
  check(packbuf_open(&c.view, c.packed, c.size, 0, NULL, &error));
  c.head = c.view.head_length;
  measure(&p, &ours, &theirs);
  measure(&q, &found, &nothing);
  printf("| packbuf_open, %d fields (head of %llu bytes) | %.1f us | CRC-32C of the head | %.1f us | %.2f |\n", FIELDS,
         (unsigned long long)c.head, 1e6 * ours / REPEAT, 1e6 * theirs / REPEAT, ours / theirs);
  printf("| packbuf_find, one of %d fields | %.0f ns | | | |\n", FIELDS, 1e9 * found / FIELDS);
  free(c.names);
  packbuf_arena_free(&arena);
}

/* ---- inference ---- */

typedef struct infer_case {
  packbuf_value *values;
  uint64_t rows;
} infer_case;

static void infer_it(void *context) {
  infer_case *c = (infer_case *)context;
  packbuf_arena arena;
  packbuf_inference inference;
  packbuf_arena_init(&arena, NULL);
  check(packbuf_infer(c->values, c->rows, "r", PACKBUF_STRICT, &arena, &inference, &error));
  packbuf_arena_free(&arena);
}

/* One pass over the values and their text: what inference cannot do without. */
static void pass_over(void *context) {
  infer_case *c = (infer_case *)context;
  volatile uint64_t sum = 0;
  uint64_t total = 0;
  for (uint64_t i = 0; i < c->rows; i++)
    for (size_t j = 0; c->values[i].kind == PACKBUF_STRING && j < c->values[i].as.text.size; j += 8)
      total += (uint8_t)c->values[i].as.text.data[j];
  sum = total;
  (void)sum;
}

static void bench_infer(void) {
  enum { ROWS = 1000000, KEYS = 8 };
  static const char *const keys[KEYS] = {"step", "lr", "source", "model", "seed", "prompt_len", "response_len", "ok"};
  char *text = (char *)must(malloc((size_t)ROWS * 64));
  packbuf_value *values = (packbuf_value *)must(malloc(ROWS * sizeof *values));
  packbuf_entry *entries = (packbuf_entry *)must(malloc((size_t)ROWS / 10 * KEYS * sizeof *entries));
  infer_case c;
  pair p = {infer_it, pass_over, NULL};
  double ours, theirs;
  p.context = &c;
  c.values = values;
  c.rows = ROWS;
  for (uint64_t i = 0; i < (uint64_t)ROWS * 64; i++) text[i] = (char)('a' + random64() % 26);
  for (uint64_t i = 0; i < ROWS; i++) values[i] = packbuf_string_n(text + i * 64, 16 + random64() % 48);
  measure(&p, &ours, &theirs);
  printf("| packbuf_infer, %d strings | %.1f Mrows/s | reading every 8th byte | %.1f Mrows/s | %.2f |\n", ROWS,
         1e-6 * ROWS / ours, 1e-6 * ROWS / theirs, ours / theirs);
  for (uint64_t i = 0; i < ROWS; i++) values[i] = packbuf_int((int64_t)i);
  p.theirs = NULL;
  measure(&p, &ours, &theirs);
  printf("| packbuf_infer, %d ints | %.1f Mrows/s | | | |\n", ROWS, 1e-6 * ROWS / ours);
  c.rows = ROWS / 10;
  for (uint64_t i = 0; i < c.rows; i++) {
    for (int k = 0; k < KEYS; k++) {
      entries[i * KEYS + (uint64_t)k].key = packbuf_string(keys[k]);
      entries[i * KEYS + (uint64_t)k].value = k == 2 || k == 3 ? packbuf_string("gsm8k")
                                              : k == 1         ? packbuf_float(1e-6)
                                              : k == 7         ? packbuf_bool(1)
                                                               : packbuf_int((int64_t)i);
    }
    values[i] = packbuf_dict(entries + i * KEYS, KEYS);
  }
  measure(&p, &ours, &theirs);
  printf("| packbuf_infer, %llu dicts of %d keys | %.1f Mrows/s | | | |\n", (unsigned long long)c.rows, KEYS,
         1e-6 * (double)c.rows / ours);
  free(text);
  free(values);
  free(entries);
}

int main(int argc, char **argv) {
  printf("packbuf %d.%d.%d, medians of %d interleaved runs, thread CPU time but for the threads\n\n",
         PACKBUF_VERSION_MAJOR, PACKBUF_VERSION_MINOR, PACKBUF_VERSION_PATCH, RUNS);
  printf("| ours | | beside it | | time, ours / theirs |\n| --- | --- | --- | --- | --- |\n");
  for (int checksums = 1; checksums >= 0; checksums--) {
    bench_write(10000, 2048, checksums);
    bench_write(10000, 16384, checksums);
    bench_write(10000, 65536, checksums);
    bench_dense((uint64_t)256 << 20, checksums);
    bench_dense((uint64_t)1 << 20, checksums);
  }
  bench_threads(1);
  bench_threads(0);
  if (argc > 1 && strcmp(argv[1], "write") == 0) return 0;
  bench_open();
  bench_infer();
  return 0;
}
