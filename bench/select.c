/* bench/select.c: what selecting costs beside a memcpy of the same bytes written by hand, which knows where everything
 * lies: 3 fields of 20, 1 row in 8, as a range, a step, an index list; dense and ragged. Medians of 15 interleaved
 * runs, thread CPU time, memory touched before.
 * May use: packbuf.h. Must not know: its inside. */
#define _POSIX_C_SOURCE 200809L
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RUNS = 15, FIELDS = 20, CHOSEN = 3, EIGHTH = 8, ROWS = 4096, WIDTH = 512 };

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

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

typedef struct bench_case {
  packbuf_view view;
  float *numbers;          /* of one field */
  uint64_t *offsets;       /* NULL: dense */
  uint64_t width;          /* of a dense row */
  packbuf_row_selection rows;
  int64_t *list;           /* the same rows */
  uint64_t count, bytes;
  uint8_t *out;
  int64_t *out_offsets;
} bench_case;

static const char *const names[CHOSEN] = {"f3", "f7", "f11"};

static void ours(bench_case *c) {
  packbuf_arena arena;
  packbuf_selection selection;
  packbuf_arena_init(&arena, NULL);
  check(packbuf_select(&c->view, 0, names, CHOSEN, c->rows, &arena, &selection, &error));
  for (uint32_t i = 0; i < selection.node_count; i++) {
    packbuf_select_into into;
    packbuf_selected_size size;
    check(packbuf_select_size(&selection, selection.nodes[i], &size, &error));
    memset(&into, 0, sizeof into);
    into.data = c->out;
    into.data_capacity = c->bytes;
    into.offsets = c->offsets ? c->out_offsets : NULL;
    into.rows = size.rows;
    check(packbuf_select_copy(&selection, selection.nodes[i], &into, NULL, &error));
  }
  packbuf_arena_free(&arena);
}

/* The data of one field in the packed buffer, and the rows, are known beforehand. */
static void theirs(bench_case *c) {
  for (unsigned f = 0; f < CHOSEN; f++) {
    packbuf_node node;
    packbuf_buffer data;
    uint64_t at = 0;
    check(packbuf_find(&c->view, 0, names[f], &node, &error));
    check(packbuf_get_buffer(&c->view, &node, PACKBUF_ROLE_DATA, 0, &data, &error));
    for (uint64_t i = 0; i < c->count; i++) {
      const uint64_t row = (uint64_t)c->list[i], first = c->offsets ? c->offsets[row] : row * c->width,
                     count = c->offsets ? c->offsets[row + 1] - first : c->width;
      memcpy(c->out + at, data.bytes + first * 4, count * 4);
      at += count * 4;
      if (c->offsets) c->out_offsets[i + 1] = (int64_t)(at / 4);
    }
  }
}

static void measure(bench_case *c, const char *what) {
  double a[RUNS], b[RUNS];
  const int repeat = c->bytes < 1 << 20 ? 100 : 4;
  ours(c), theirs(c);
  for (int i = 0; i < RUNS; i++) {
    double t = now();
    for (int k = 0; k < repeat; k++) ours(c);
    a[i] = now() - t;
    t = now();
    for (int k = 0; k < repeat; k++) theirs(c);
    b[i] = now() - t;
  }
  qsort(a, RUNS, sizeof *a, ascending);
  qsort(b, RUNS, sizeof *b, ascending);
  printf("| %s, %.2f MB | %.1f us | memcpy by hand | %.1f us | %.2f |\n", what, 1e-6 * CHOSEN * (double)c->bytes,
         1e6 * a[RUNS / 2] / repeat, 1e6 * b[RUNS / 2] / repeat, a[RUNS / 2] / b[RUNS / 2]);
}

static void run(const char *kind, uint64_t width, int ragged) {
  static char field_names[FIELDS][8];
  uint64_t shape[2] = {ROWS, width}, random = 1, total;
  float *numbers = (float *)must(malloc(sizeof *numbers * ROWS * width));
  uint64_t *offsets = (uint64_t *)must(malloc(sizeof *offsets * (ROWS + 1)));
  int64_t *list = (int64_t *)must(malloc(sizeof *list * ROWS));
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_options options = packbuf_default_options();
  bench_case c;
  void *packed;
  char what[64];
  memset(&c, 0, sizeof c);
  options.row_sharing = 0;
  offsets[0] = 0;
  for (uint64_t i = 0; i < ROWS; i++) {
    random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    offsets[i + 1] = offsets[i] + (ragged ? (random >> 33) % width : width);
  }
  packbuf_arena_init(&arena, NULL);
  check(packbuf_batch_init(&batch, ROWS, &arena, &options, &error));
  for (uint64_t i = 0; i < ROWS * width; i++) numbers[i] = (float)i;
  for (int f = 0; f < FIELDS; f++) {
    packbuf_tensor tensor;
    packbuf_ragged rows;
    float *own = (float *)must(packbuf_arena_alloc(&arena, sizeof *own * ROWS * width, 64));
    for (uint64_t i = 0; i < ROWS * width; i++) own[i] = numbers[i] + (float)f;
    snprintf(field_names[f], sizeof field_names[f], "f%d", f);
    memset(&tensor, 0, sizeof tensor);
    memset(&rows, 0, sizeof rows);
    tensor.data = rows.data = own;
    tensor.dtype = rows.dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
    tensor.rank = 2, tensor.shape = shape;
    rows.offset_bits = 64, rows.offsets = offsets, rows.items = ROWS * width;
    if (ragged) check(packbuf_add_ragged(&batch, field_names[f], &rows, &error));
    else check(packbuf_add_tensor(&batch, field_names[f], &tensor, NULL, &error));
  }
  check(packbuf_pack(&batch, &packed, &total, &error));
  check(packbuf_open(&c.view, packed, total, 0, NULL, &error));
  c.numbers = numbers, c.offsets = ragged ? offsets : NULL, c.width = width, c.list = list;
  c.out = (uint8_t *)must(calloc(ROWS / EIGHTH + 1, width * 4));
  c.out_offsets = (int64_t *)must(calloc(ROWS + 1, 8));
  c.count = ROWS / EIGHTH;
  for (int way = 0; way < 3; way++) {
    static const char *const ways[] = {"a run of rows", "every 8th row", "an index list"};
    c.bytes = 0;
    for (uint64_t i = 0; i < c.count; i++) {
      random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
      list[i] = way == 0   ? (int64_t)(ROWS / 2 + i)
                : way == 1 ? (int64_t)(i * EIGHTH)
                           : (int64_t)((random >> 33) % ROWS);
      c.bytes += (offsets[list[i] + 1] - offsets[list[i]]) * 4;
    }
    c.rows = way == 0   ? packbuf_rows_range(ROWS / 2, ROWS / 2 + ROWS / EIGHTH, 1)
             : way == 1 ? packbuf_rows_range(0, PACKBUF_ROWS_END, EIGHTH)
                        : packbuf_rows_index(list, c.count);
    snprintf(what, sizeof what, "%s: %s", kind, ways[way]);
    measure(&c, what);
  }
  free(c.out), free(c.out_offsets), free(numbers), free(offsets), free(list);
  packbuf_arena_free(&arena);
}

int main(void) {
  printf("selecting %d fields of %d, %d rows of %d, medians of %d interleaved runs, one thread\n\n", CHOSEN, FIELDS,
         ROWS / EIGHTH, ROWS, RUNS);
  printf("| ours | | beside it | | time, ours / theirs |\n| --- | --- | --- | --- | --- |\n");
  run("dense [4096, 512] float32", WIDTH, 0);
  run("ragged, 0 to 511 float32 a row", WIDTH, 1);
  run("dense [4096] float32", 1, 0);
  run("ragged, 0 to 7 float32 a row", EIGHTH, 1);
  return 0;
}
