/* Batches made, packed and read back, for the tests of writing (fields.c, storage.c, writing.c, memory.c, refusals.c):
 * trips with the way there checked, cells by notation, arrays and dtypes in a word, memory of a device that is none.
 * Test-only; includes nothing but the public part of packbuf.h and tests/matrix_values.h. */
#ifndef TRIPS_H
#define TRIPS_H

#include "matrix_values.h"
#include "tap.h"

/* Packs, and says why not. */
static inline int packs(mv_trip *trip) {
  packbuf_status status = mv_trip_pack(trip);
  if (status) tap_note("%s: %s (%s)", trip->step, packbuf_status_name(status), mv_error(&trip->error));
  return status == PACKBUF_OK;
}

static inline int find(mv_trip *trip, const char *path, packbuf_node *node) {
  return packbuf_find(&trip->view, 0, path, node, &trip->error) == PACKBUF_OK;
}

static inline packbuf_value cell(mv_trip *trip, const char *path, uint64_t row) {
  packbuf_node node;
  packbuf_value value = packbuf_string("(unreadable)");
  if (find(trip, path, &node) && packbuf_read_cell(&trip->view, node.index, row, &trip->back, &value, &trip->error))
    tap_note("%s", mv_error(&trip->error));
  return value;
}

/* 1 when the cell equals the value in the notation. */
static inline int is(mv_trip *trip, const char *path, uint64_t row, const char *notation) {
  size_t count;
  packbuf_value *want = mv_column(notation, &count), got = cell(trip, path, row);
  return count == 1 && mv_same(want, &got);
}

/* Storage of a buffer; 0 when there is none. */
static inline unsigned storage(mv_trip *trip, const char *path, packbuf_role role) {
  packbuf_node node;
  packbuf_buffer buffer;
  if (!find(trip, path, &node) || packbuf_get_buffer(&trip->view, &node, role, 0, &buffer, NULL)) return 0;
  return buffer.storage;
}

static inline packbuf_tensor array_of(const void *data, packbuf_dtype dtype, unsigned rank, const uint64_t *shape,
                                      const int64_t *strides, unsigned form) {
  packbuf_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = data;
  tensor.dtype = dtype;
  tensor.rank = (uint8_t)rank;
  tensor.shape = shape;
  tensor.strides = strides;
  tensor.form = (uint8_t)form;
  return tensor;
}

static inline packbuf_dtype i64(void) { return packbuf_dtype_of(PACKBUF_DTYPE_INT, 64); }
static inline packbuf_dtype i32(void) { return packbuf_dtype_of(PACKBUF_DTYPE_INT, 32); }
static inline packbuf_dtype f32(void) { return packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32); }
static inline packbuf_dtype f64(void) { return packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64); }
static inline packbuf_dtype u8(void) { return packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8); }

/* A random source: every byte random, but bools. */
static inline uint8_t *random_bytes(size_t size, packbuf_dtype dtype) {
  uint8_t *bytes = (uint8_t *)mv_alloc(size + 64);
  for (size_t i = 0; i < size + 64; i++)
    bytes[i] = (uint8_t)(dtype.code == PACKBUF_DTYPE_BOOL ? mv_random() >> 40 & 1 : mv_random() >> 40);
  return bytes;
}

static inline int bit(const uint8_t *bitmap, uint64_t row) { return !bitmap || (bitmap[row / 8] >> (row % 8) & 1); }

static inline packbuf_text text_of(const char *data) {
  packbuf_text text;
  text.data = data;
  text.size = data ? strlen(data) : 0;
  return text;
}

static inline int metadata_is(mv_trip *trip, uint32_t index, const char *path, const char *key, const char *text) {
  packbuf_metadata m;
  char at[64] = "";
  if (packbuf_get_metadata(&trip->view, index, &m, &trip->error)) return 0;
  if (m.node != PACKBUF_NO_NODE) packbuf_node_path(&trip->view, m.node, at, sizeof at);
  return strcmp(at, path) == 0 && mv_same_bytes(m.key.data, m.key.size, key, strlen(key)) &&
         mv_same_bytes(m.text.data, m.text.size, text, strlen(text));
}

/* ---- memory of a device ---- */

/* Device addresses are host addresses moved so far that using one would fault. */
#define FAR_AWAY ((uintptr_t)1 << (sizeof(uintptr_t) > 4 ? 55 : 31))

typedef struct fake {
  unsigned copies, fail_at;
  uint64_t bytes;
} fake;

static inline packbuf_status fake_copy(void *context, void *dst, const void *src, size_t size) {
  fake *f = (fake *)context;
  if (f->copies++ == f->fail_at) return PACKBUF_READ_ONLY;
  memcpy(dst, (const void *)((uintptr_t)src - FAR_AWAY), size);
  f->bytes += size;
  return PACKBUF_OK;
}

#endif
