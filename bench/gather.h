/* bench/gather.h: ragged rows that lie scattered in memory, gathered into one packed buffer, plain and packed on the
 * way, beside a memcpy of each row. Rows of token ids, lengths from 1 to twice the average, in shuffled places.
 * May use: batches.h (bench_check), generate.h, codecs.h. Must not know: how anything is packed. */
#ifndef BENCH_GATHER_H
#define BENCH_GATHER_H

#include "batches.h"
#include "generate.h"

typedef struct bench_rows {
  packbuf_batch batch;
  packbuf_tensor *tensors;
  uint64_t *shapes, count;
  size_t bytes, room;
  uint8_t *source, *packed, *copied;
} bench_rows;

static void bench_run_gather(void *context) {
  bench_rows *rows = (bench_rows *)context;
  bench_check(packbuf_write(&rows->batch, rows->packed, rows->room, NULL, &bench_error));
}

static void bench_run_row_copies(void *context) {
  bench_rows *rows = (bench_rows *)context;
  uint8_t *to = rows->copied;
  for (uint64_t i = 0; i < rows->count; i++) {
    memcpy(to, rows->tensors[i].data, (size_t)rows->shapes[i] * 8);
    to += rows->shapes[i] * 8;
  }
  __asm__ volatile("" : : "r"(to) : "memory");
}

static void bench_rows_make(bench_rows *rows, uint64_t count, uint64_t average, const bench_column *tokens) {
  uint64_t *order = (uint64_t *)bench_must(malloc(count * 8)), at = 0;
  rows->count = count;
  rows->tensors = (packbuf_tensor *)bench_must(calloc(count, sizeof *rows->tensors));
  rows->shapes = (uint64_t *)bench_must(malloc(count * 8));
  for (uint64_t i = 0; i < count; i++) {
    order[i] = i;
    rows->shapes[i] = 1 + bench_random() % (average / 4);
    rows->bytes += rows->shapes[i] * 8;
  }
  for (uint64_t i = count; i-- > 1;) {
    const uint64_t k = bench_random() % (i + 1), swap = order[i];
    order[i] = order[k];
    order[k] = swap;
  }
  rows->source = bench_memory(rows->bytes);
  rows->copied = bench_memory(rows->bytes);
  rows->room = rows->bytes + rows->bytes / 8 + 64 * count + ((size_t)1 << 20);
  rows->packed = bench_memory(rows->room);
  bench_tile(tokens, rows->source, rows->bytes);
  for (uint64_t i = 0; i < count; i++) {
    packbuf_tensor *row = &rows->tensors[order[i]];
    row->data = rows->source + at;
    row->dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
    row->rank = 1;
    row->shape = &rows->shapes[order[i]];
    at += rows->shapes[order[i]] * 8;
  }
  free(order);
}

/* The packed rows, read back, are the rows. */
static void bench_rows_compare(const bench_rows *rows, uint64_t size) {
  packbuf_arena arena;
  packbuf_view view;
  packbuf_selection all;
  packbuf_select_into into;
  uint8_t *out = bench_memory(rows->bytes);
  packbuf_arena_init(&arena, NULL);
  bench_check(packbuf_open(&view, rows->packed, size, 0, NULL, &bench_error));
  bench_check(packbuf_select(&view, 0, NULL, 0, packbuf_rows_all(), &arena, &all, &bench_error));
  memset(&into, 0, sizeof into);
  into.data = out;
  into.data_capacity = rows->bytes;
  bench_check(packbuf_select_copy(&all, all.nodes[0], &into, NULL, &bench_error));
  if (memcmp(out, rows->copied, rows->bytes) != 0) {
    fprintf(stderr, "bench: gathered rows came back changed\n");
    exit(1);
  }
  free(out);
  packbuf_arena_free(&arena);
}

static void bench_rows_case(bench_rows *rows, const char *column, const char *name, uint8_t packing, unsigned rounds,
                            bench_results *results) {
  static bench_turns turns;
  packbuf_options options = packbuf_default_options();
  packbuf_arena arena;
  bench_result result;
  uint64_t size = 0;
  options.packing = packing;
  options.data_checksums = 0;
  options.row_sharing = 0;
  packbuf_arena_init(&arena, NULL);
  if (packbuf_batch_init(&rows->batch, rows->count, &arena, &options, &bench_error) ||
      packbuf_add_tensors(&rows->batch, "tokens", rows->tensors, &bench_error) ||
      packbuf_write(&rows->batch, rows->packed, rows->room, &size, &bench_error)) {
    fprintf(stderr, "bench: %s: %s: %s\n", column, name, packbuf_status_text(bench_error.code));
    packbuf_arena_free(&arena);
    return;
  }
  bench_run_row_copies(rows);
  bench_rows_compare(rows, size);
  memset(&turns, 0, sizeof turns);
  turns.threads = 1, turns.rounds = rounds, turns.operations = 2, turns.repeat = rows->bytes < (size_t)64 << 20 ? 4 : 1;
  turns.run[0] = bench_run_row_copies, turns.run[1] = bench_run_gather;
  turns.context[0][0] = turns.context[0][1] = rows;
  bench_take_turns(&turns);
  memset(&result, 0, sizeof result);
  result.op = "gather", result.column = column, result.dtype = "int64", result.kernels = "", result.name = name;
  result.bytes = rows->bytes, result.threads = 1;
  result.seconds = bench_seconds(&turns, 1);
  result.x_memcpy = bench_times(&turns, 1, 0); /* a memcpy for each row */
  result.ratio = (double)rows->bytes / (double)size;
  result.narrow_ratio = result.ratio / 2;
  bench_put(results, &result);
  packbuf_arena_free(&arena);
}

static void bench_gather(const bench_columns *columns, unsigned rounds, bench_results *results) {
  static const struct {
    const char *name;
    uint64_t count, average;
  } cases[] = {{"rows of 2 KiB", 10000, 2048}, {"rows of 64 KiB", 4096, 65536}};
  const bench_column *tokens = &columns->all[0];
  for (unsigned i = 0; i < columns->count; i++) {
    if (columns->all[i].what && strcmp(columns->all[i].what, "tokens") == 0) tokens = &columns->all[i];
  }
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    static bench_rows rows;
    memset(&rows, 0, sizeof rows);
    bench_rows_make(&rows, cases[i].count, cases[i].average, tokens);
    bench_rows_case(&rows, cases[i].name, "packbuf plain", PACKBUF_PACKING_NONE, rounds, results);
    bench_rows_case(&rows, cases[i].name, "packbuf fastest", PACKBUF_PACKING_FASTEST, rounds, results);
    bench_rows_case(&rows, cases[i].name, "packbuf", PACKBUF_PACKING_BALANCED, rounds, results);
    free(rows.tensors);
    free(rows.shapes);
    free(rows.source);
    free(rows.copied);
    free(rows.packed);
  }
}

#endif
