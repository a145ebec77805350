/* bench/batches.h: whole batches through the public calls: packed and unpacked into arrays that are there already,
 * beside two memcpys of the raw bytes. As many copies of the batch as fill 256 MiB, each a packed buffer of its own, so
 * that nothing is shared between copies.
 * May use: npy.h, codecs.h (results). Must not know: how anything is packed. */
#ifndef BENCH_BATCHES_H
#define BENCH_BATCHES_H

#include "codecs.h"
#include "npy.h"

enum { BENCH_SPACE = 64 << 20 };

typedef struct bench_field {
  const bench_array *array, *offsets; /* offsets NULL: dense */
} bench_field;

typedef struct bench_batch {
  bench_array arrays[BENCH_ARRAYS];
  bench_field fields[BENCH_ARRAYS];
  unsigned count; /* of arrays */
  unsigned field_count;
  uint64_t rows;
  size_t size; /* bytes of all arrays */
  unsigned copies;
  packbuf_options options;
  uint8_t *raw, *packed, *out; /* of the copies: their arrays one after the other, each from a multiple of 64 */
  size_t raw_step, packed_step;
  uint64_t packed_size; /* of one */
  void *space;          /* of the arenas, which are reused as the other memory is */
} bench_batch;

static packbuf_error bench_error;

static void bench_check(packbuf_status status) {
  char line[512];
  if (!status) return;
  packbuf_error_format(&bench_error, line, sizeof line);
  fprintf(stderr, "bench: %s\n", line);
  exit(1);
}

static size_t bench_aligned(size_t size) { return (size + 63) & ~(size_t)63; }

/* Where an array lies in a copy. */
static size_t bench_place(const bench_batch *batch, const bench_array *array) {
  size_t at = 0;
  for (const bench_array *a = batch->arrays; a < array; a++) at += bench_aligned(a->size);
  return at;
}

static const bench_array *bench_array_named(const bench_batch *batch, const char *name) {
  for (unsigned i = 0; i < batch->count; i++) {
    if (strcmp(batch->arrays[i].name, name) == 0) return &batch->arrays[i];
  }
  return NULL;
}

/* Which arrays are fields: all but the offsets; arrays longer than the rows are cut by the offsets that end there. */
static void bench_fields(bench_batch *batch) {
  const bench_array *ends[2];
  ends[0] = bench_array_named(batch, "input_ids_offsets");
  ends[1] = bench_array_named(batch, "response_offsets");
  batch->rows = ends[0] ? ends[0]->shape[0] - 1 : batch->arrays[0].shape[0];
  for (unsigned i = 0; i < batch->count; i++) {
    bench_field *field = &batch->fields[batch->field_count];
    batch->size += batch->arrays[i].size;
    if (strstr(batch->arrays[i].name, "_offsets")) continue;
    field->array = &batch->arrays[i];
    for (unsigned k = 0; k < 2 && field->array->shape[0] != batch->rows; k++) {
      uint64_t end = 0;
      if (ends[k]) memcpy(&end, ends[k]->data + 8 * batch->rows, 8);
      if (ends[k] && end == field->array->shape[0]) field->offsets = ends[k];
    }
    batch->field_count++;
  }
}

/* Builds and writes copy `i`; 0 when that failed. */
static int bench_pack_copy(const bench_batch *batch, unsigned i, uint64_t *size) {
  const uint8_t *raw = batch->raw + i * batch->raw_step;
  packbuf_arena arena;
  packbuf_batch builder;
  packbuf_status status;
  packbuf_arena_init_fixed(&arena, batch->space, BENCH_SPACE);
  status = packbuf_batch_init(&builder, batch->rows, &arena, &batch->options, &bench_error);
  for (unsigned f = 0; !status && f < batch->field_count; f++) {
    const bench_field *field = &batch->fields[f];
    packbuf_tensor tensor;
    packbuf_ragged ragged;
    memset(&tensor, 0, sizeof tensor);
    memset(&ragged, 0, sizeof ragged);
    tensor.data = ragged.data = raw + bench_place(batch, field->array);
    tensor.dtype = ragged.dtype = field->array->dtype;
    tensor.rank = field->array->rank;
    tensor.shape = field->array->shape;
    if (!field->offsets) {
      status = packbuf_add_tensor(&builder, field->array->name, &tensor, NULL, &bench_error);
      continue;
    }
    ragged.offset_bits = 64;
    ragged.offsets = raw + bench_place(batch, field->offsets);
    ragged.items = field->array->shape[0];
    status = packbuf_add_ragged(&builder, field->array->name, &ragged, &bench_error);
  }
  if (!status) {
    status = packbuf_write(&builder, batch->packed + i * batch->packed_step, batch->packed_step, size, &bench_error);
  }
  packbuf_arena_free(&arena);
  return status == PACKBUF_OK;
}

static void bench_unpack_copy(const bench_batch *batch, unsigned i) {
  uint8_t *out = batch->out + i * batch->raw_step;
  packbuf_arena arena;
  packbuf_view view;
  packbuf_selection all;
  packbuf_arena_init_fixed(&arena, batch->space, BENCH_SPACE);
  bench_check(packbuf_open(&view, batch->packed + i * batch->packed_step, batch->packed_size, 0, NULL, &bench_error));
  bench_check(packbuf_select(&view, 0, NULL, 0, packbuf_rows_all(), &arena, &all, &bench_error));
  for (unsigned f = 0; f < batch->field_count; f++) {
    const bench_field *field = &batch->fields[f];
    packbuf_select_into into;
    memset(&into, 0, sizeof into);
    into.data = out + bench_place(batch, field->array);
    into.data_capacity = field->array->size;
    into.rows = batch->rows;
    if (field->offsets) into.offsets = out + bench_place(batch, field->offsets);
    bench_check(packbuf_select_copy(&all, all.nodes[f], &into, NULL, &bench_error));
  }
  packbuf_arena_free(&arena);
}

static void bench_pack_all(void *context) {
  bench_batch *batch = (bench_batch *)context;
  for (unsigned i = 0; i < batch->copies; i++) {
    uint64_t size;
    if (!bench_pack_copy(batch, i, &size)) bench_check(bench_error.code);
  }
}

static void bench_unpack_all(void *context) {
  bench_batch *batch = (bench_batch *)context;
  for (unsigned i = 0; i < batch->copies; i++) bench_unpack_copy(batch, i);
}

static void bench_copy_all(void *context) {
  bench_batch *batch = (bench_batch *)context;
  for (unsigned i = 0; i < batch->copies; i++) {
    const size_t at = i * batch->raw_step;
    for (unsigned k = 0; k < batch->count; k++) {
      const size_t place = at + bench_place(batch, &batch->arrays[k]);
      bench_memcpy(batch->out + place, batch->raw + place, batch->arrays[k].size);
    }
  }
}

/* One set of options: packed, unpacked and compared, then timed. */
static void bench_batch_case(bench_batch *batch, const char *column, const char *name, unsigned rounds,
                             bench_results *results) {
  static bench_turns turns;
  static const char *const ops[3] = {"pack", "unpack", "pack + unpack"};
  bench_result result;
  if (!bench_pack_copy(batch, 0, &batch->packed_size)) {
    fprintf(stderr, "bench: %s: %s: %s\n", column, name, packbuf_status_text(bench_error.code));
    return;
  }
  memset(batch->out, 0x5A, batch->raw_step);
  bench_unpack_copy(batch, 0);
  for (unsigned k = 0; k < batch->count; k++) {
    if (memcmp(batch->out + bench_place(batch, &batch->arrays[k]), batch->arrays[k].data, batch->arrays[k].size) == 0)
      continue;
    fprintf(stderr, "bench: %s: %s: %s came back changed\n", column, name, batch->arrays[k].name);
    exit(1);
  }
  memset(&turns, 0, sizeof turns);
  turns.threads = 1, turns.rounds = rounds, turns.operations = 3, turns.repeat = 1;
  turns.run[0] = bench_copy_all, turns.run[1] = bench_pack_all, turns.run[2] = bench_unpack_all;
  for (unsigned i = 0; i < 3; i++) turns.context[0][i] = batch;
  bench_take_turns(&turns);
  memset(&result, 0, sizeof result);
  result.column = column, result.dtype = "batch", result.kernels = "", result.name = name;
  result.bytes = batch->copies * batch->size, result.threads = 1;
  result.ratio = result.narrow_ratio = (double)batch->size / (double)batch->packed_size;
  for (unsigned i = 0; i < 3; i++) {
    result.op = ops[i];
    result.seconds = i < 2 ? bench_seconds(&turns, i + 1) : bench_seconds(&turns, 1) + bench_seconds(&turns, 2);
    result.x_memcpy = i < 2 ? bench_times(&turns, i + 1, 0) : 2 * bench_seconds(&turns, 0) / result.seconds;
    bench_put(results, &result);
  }
}

static void bench_one_batch(const char *data, const char *which, int quick, bench_results *results) {
  static bench_batch batch;
  static const struct {
    const char *name;
    uint8_t packing, checksums, sharing;
  } ways[] = {{"packbuf plain", PACKBUF_PACKING_NONE, 1, 1},
              {"packbuf plain, no sharing, no CRC", PACKBUF_PACKING_NONE, 0, 0},
              {"packbuf", PACKBUF_PACKING_BALANCED, 1, 1},
              {"packbuf fastest", PACKBUF_PACKING_FASTEST, 1, 1},
              {"packbuf smallest", PACKBUF_PACKING_SMALLEST, 1, 1},
              {"packbuf, no sharing", PACKBUF_PACKING_BALANCED, 1, 0},
              {"packbuf, no CRC", PACKBUF_PACKING_BALANCED, 0, 1}};
  char folder[1024], column[80];
  memset(&batch, 0, sizeof batch);
  snprintf(folder, sizeof folder, "%s/batch_%s", data, which);
  snprintf(column, sizeof column, "batch %s", which);
  batch.count = bench_npy_folder(folder, batch.arrays, BENCH_ARRAYS);
  if (!batch.count) return;
  bench_fields(&batch);
  batch.raw_step = bench_place(&batch, batch.arrays + batch.count);
  batch.packed_step = bench_aligned(batch.raw_step + batch.raw_step / 8 + 65536);
  batch.copies = (unsigned)(((size_t)256 << 20) / batch.size);
  batch.raw = bench_memory(batch.copies * batch.raw_step);
  batch.out = bench_memory(batch.copies * batch.raw_step);
  batch.packed = bench_memory(batch.copies * batch.packed_step);
  batch.space = bench_memory(BENCH_SPACE);
  for (unsigned i = 0; i < batch.copies; i++) {
    for (unsigned k = 0; k < batch.count; k++) {
      memcpy(batch.raw + i * batch.raw_step + bench_place(&batch, &batch.arrays[k]), batch.arrays[k].data,
             batch.arrays[k].size);
    }
  }
  for (unsigned i = 0; i < (quick ? 5 : sizeof ways / sizeof ways[0]); i++) {
    batch.options = packbuf_default_options();
    batch.options.packing = ways[i].packing;
    batch.options.data_checksums = ways[i].checksums;
    batch.options.row_sharing = ways[i].sharing;
    bench_batch_case(&batch, column, ways[i].name, quick ? 5 : 15, results);
  }
  for (unsigned k = 0; k < batch.count; k++) free(batch.arrays[k].data);
  free(batch.raw);
  free(batch.out);
  free(batch.packed);
  free(batch.space);
}

#endif
