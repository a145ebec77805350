/* Little-endian numbers in the bytes of a packed buffer, and where its records lie; for tests that look at bytes or
 * change them. Include after packbuf.h. Must not know: what the numbers mean. */
#ifndef BYTES_H
#define BYTES_H

#include <stdint.h>

static inline uint64_t bytes_load(const void *at, unsigned size) {
  const uint8_t *bytes = (const uint8_t *)at;
  uint64_t number = 0;
  while (size-- != 0) number = number << 8 | bytes[size];
  return number;
}

static inline void bytes_store(void *at, unsigned size, uint64_t number) {
  uint8_t *bytes = (uint8_t *)at;
  for (unsigned i = 0; i < size; i++) bytes[i] = (uint8_t)(number >> 8 * i);
}

static inline uint64_t bytes_load64(const void *at) { return bytes_load(at, 8); }
static inline void bytes_store64(void *at, uint64_t number) { bytes_store(at, 8, number); }
static inline void bytes_store32(void *at, uint32_t number) { bytes_store(at, 4, number); }

static inline int bytes_big_endian(void) {
  const uint16_t one = 1;
  return *(const uint8_t *)&one == 0;
}

/* Of one element, whose bits fill whole bytes. */
static inline size_t bytes_each(packbuf_dtype dtype) { return (size_t)dtype.bits * dtype.lanes / 8; }

/* Where records lie, from the start of the packed buffer. */
static inline uint64_t bytes_node_at(const packbuf_view *view, uint32_t index) {
  return view->nodes_at + (uint64_t)index * view->node_stride;
}
static inline uint64_t bytes_buffer_at(const packbuf_view *view, uint32_t index) {
  return view->buffers_at + (uint64_t)index * view->buffer_stride;
}

#endif
