/* tests/big.c: more than 4 GiB. The head of a packed buffer of some 10 GiB is written into a sparse mapping by the
 * library's own layout, single elements are put where it says, and read back from beyond 4 GiB; and 4.25 GiB are really
 * packed, into a mapping that takes some 400 MiB.
 * May use: packbuf.h and its insides, mmap. Must not know: other tests. */
#define _GNU_SOURCE
#include "internals.h"
#include "tap.h"

#include <sys/mman.h>
#include <unistd.h>

#define GIB ((uint64_t)1 << 30)

static packbuf_error error;

static uint8_t *map(uint64_t size) {
  void *memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? NULL : (uint8_t *)memory;
}

/* A mapping whose middle, from 64 MiB to 4 GiB, is the same 64 MiB of memory again and again: room for what is all zero
 * there. */
static uint8_t *map_folded(uint64_t size) {
  const uint64_t piece = GIB / 16;
  uint8_t *memory = map(size);
  int file = memfd_create("packbuf", 0), good = memory && file >= 0 && ftruncate(file, (off_t)piece) == 0;
  for (uint64_t at = piece; good && at < 4 * GIB; at += piece)
    good = mmap(memory + at, (size_t)piece, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != MAP_FAILED;
  if (file >= 0) close(file);
  return good ? memory : NULL;
}

/* What packbuf_write does, but for the data: they stay a hole. */
static void write_all_but_data(packbuf_batch *batch, uint8_t *to) {
  packbuf_i_plan *plan = batch->plan;
  packbuf_i_stretch data, index;
  memset(&data, 0, sizeof data);
  memset(&index, 0, sizeof index);
  index.to = plan->index_length;
  tap_ok(packbuf_i_write_stretches(plan, &data, &index, to, NULL) == PACKBUF_OK, "the index is written");
  packbuf_i_put_head(to, plan);
  packbuf_i_store32(to + 56, packbuf_checksum(0, to + plan->head_length, (size_t)plan->index_length));
  packbuf_i_store32(to + 60, packbuf_checksum(0, to, (size_t)plan->head_length));
}

static void add_fields(packbuf_batch *batch, const uint8_t *source) {
  static const int64_t offsets[6] = {0, 10, 10, 536870912 + 7, 600000000, 600000001};
  uint64_t shape[2] = {5, GIB};
  packbuf_tensor dense = {NULL, {PACKBUF_DTYPE_UINT, 8, 1}, 2, PACKBUF_FORM_TENSOR, NULL, NULL, NULL};
  packbuf_ragged ragged;
  memset(&ragged, 0, sizeof ragged);
  dense.data = source;
  dense.shape = shape;
  ragged.data = source;
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  ragged.items = 600000001;
  ragged.offsets = offsets;
  ragged.offset_bits = 64;
  tap_ok(packbuf_add_tensor(batch, "dense", &dense, NULL, &error) == PACKBUF_OK, "5 GiB dense");
  tap_ok(packbuf_add_ragged(batch, "ragged", &ragged, &error) == PACKBUF_OK, "4.5 GiB ragged");
}

static void read_dense(const packbuf_view *view, uint8_t *packed) {
  packbuf_node node;
  packbuf_buffer data;
  const void *elements = NULL;
  uint8_t byte = 0;
  uint64_t at = 4 * GIB + 123;
  tap_ok(!packbuf_find(view, 0, "dense", &node, &error) &&
             !packbuf_get_buffer(view, &node, PACKBUF_ROLE_DATA, 0, &data, &error) && data.length == 5 * GIB,
         "found");
  packed[data.offset + at] = 77;
  tap_ok(!packbuf_get_typed(&data, node.dtype, &elements, &error) && ((const uint8_t *)elements)[at] == 77,
         "typed, beyond 4 GiB");
  tap_ok(!packbuf_copy_elements(view, &data, at, 1, &byte, 1, &error) && byte == 77, "copied out, beyond 4 GiB");
  tap_ok(packbuf_copy_elements(view, &data, 5 * GIB, 1, &byte, 1, &error) == PACKBUF_OUT_OF_RANGE, "not past the end");
}

static void read_ragged(const packbuf_view *view, uint8_t *packed, packbuf_arena *arena) {
  packbuf_node node;
  packbuf_column column;
  packbuf_value value;
  uint64_t first = 0, count = 0;
  int64_t number = 0;
  tap_ok(!packbuf_find(view, 0, "ragged", &node, &error) && !packbuf_open_column(view, node.index, &column, &error),
         "a ragged column");
  tap_ok(!packbuf_cell_extent(&column, 4, &first, &count, &error) && first == 600000000 && count == 1,
         "a row that begins beyond 4 GiB of data");
  packbuf_i_store64(packed + column.data.offset + first * 8, 4242);
  tap_ok(column.data.offset > 4 * GIB && !packbuf_copy_elements(view, &column.data, first, 1, &number, 8, &error) &&
             number == 4242,
         "its element");
  tap_ok(!packbuf_read_cell(view, node.index, 4, arena, &value, &error) && value.kind == PACKBUF_TENSOR &&
             value.as.tensor->shape[0] == 1 && (memcpy(&number, value.as.tensor->data, 8), number == 4242),
         "the row as a value");
}

/* Really writes and checks 4.25 GiB. */
static void pack_for_real(const uint8_t *source) {
  uint64_t shape[1] = {17 * (GIB / 4)}, size = 0;
  packbuf_tensor dense = {NULL, {PACKBUF_DTYPE_UINT, 8, 1}, 1, PACKBUF_FORM_NATURAL, NULL, NULL, NULL};
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_view view;
  uint8_t *packed;
  if (sizeof(void *) < 8 || packbuf_i_big_endian() ||
      (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) < GIB) {
    tap_note("4.25 GiB are not packed for real here: emulated, or less than 1 GiB of free memory");
    return;
  }
  dense.data = source;
  dense.shape = shape;
  packbuf_arena_init(&arena, NULL);
  packed = map_folded(5 * GIB);
  tap_ok(packed && !packbuf_batch_init(&batch, shape[0], &arena, NULL, &error) &&
             !packbuf_add_tensor(&batch, "bytes", &dense, NULL, &error) &&
             !packbuf_write(&batch, packed, 5 * GIB, &size, &error) && size > 17 * (GIB / 4),
         "4.25 GiB are packed");
  tap_ok(!packbuf_open(&view, packed, size, PACKBUF_OPEN_EXACT, NULL, &error) &&
             !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error),
         "and verified");
  if (packed) {
    packed[size - 100] ^= 1;
    tap_ok(packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) == PACKBUF_DATA_CHECKSUM && error.offset > 4 * GIB,
           "a flipped bit beyond 4 GiB is found there");
    munmap(packed, (size_t)(5 * GIB));
  }
  packbuf_arena_free(&arena);
}

int main(void) {
  packbuf_options options = packbuf_default_options();
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_view view;
  uint64_t size = 0;
  uint8_t *source, *packed;
  if (sizeof(void *) < 8) {
    tap_ok(1, "more than 4 GiB need 64-bit addresses");
    return tap_plan_done();
  }
  options.data_checksums = 0;
  options.row_sharing = 0; /* the zero pages of a sparse source are equal rows */
  packbuf_arena_init(&arena, NULL);
  source = map(5 * GIB);
  if (!tap_ok(source != NULL, "a sparse source")) return tap_plan_done();
  source[0] = 1; /* not a constant */
  tap_ok(packbuf_batch_init(&batch, 5, &arena, &options, &error) == PACKBUF_OK, "a batch");
  add_fields(&batch, source);
  tap_ok(packbuf_measure(&batch, &size, &error) == PACKBUF_OK && size > 9 * GIB, "measured");
  packed = map(size);
  if (!tap_ok(packed != NULL, "a sparse destination")) return tap_plan_done();
  write_all_but_data(&batch, packed);
  if (tap_ok(!packbuf_open(&view, packed, size, PACKBUF_OPEN_EXACT, NULL, &error) &&
                 !packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error),
             "opened, head and index verified")) {
    read_dense(&view, packed);
    read_ragged(&view, packed, &arena);
  }
  munmap(packed, (size_t)size);
  packbuf_arena_free(&arena);
  pack_for_real(source);
  return tap_plan_done();
}
