/* Checksums of a changed packed buffer made right again, so that what lies behind them is looked at; for tests and fuzz
 * targets. Include after packbuf.h with its implementation. Must not know: what was changed. */
#ifndef SEALING_H
#define SEALING_H

#include <string.h>

/* The head's checksum. Nothing where the head is not all there. */
static inline void seal_head(uint8_t *data, uint64_t size) {
  static const uint8_t zero[4] = {0, 0, 0, 0};
  uint64_t head;
  uint32_t crc;
  if (size < 128) return;
  head = packbuf_i_load64(data + 32);
  if (head < 128 || head > size) return;
  crc = packbuf_checksum(packbuf_checksum(0, data, 60), zero, 4);
  packbuf_i_store32(data + 60, packbuf_checksum(crc, data + 64, (size_t)(head - 64)));
}

/* Those of data, index and head, as far as they are there. */
static inline void seal_all(uint8_t *data, uint64_t size) {
  uint64_t head, index, at, total;
  if (size < 128) return;
  total = packbuf_i_load64(data + 24), head = packbuf_i_load64(data + 32), index = packbuf_i_load64(data + 40);
  if (head < 128 || head > size || index > size - head) return;
  at = head + index;
  if (total > size || total < at) total = size;
  for (uint64_t i = 0; (data[20] & 1) && at < total && 4 * i + 4 <= index; i++, at += PACKBUF_I_CHUNK) {
    const uint64_t left = total - at;
    packbuf_i_store32(data + head + 4 * i,
                      packbuf_checksum(0, data + at, (size_t)(left < PACKBUF_I_CHUNK ? left : PACKBUF_I_CHUNK)));
  }
  packbuf_i_store32(data + 56, packbuf_checksum(0, data + head, (size_t)index));
  seal_head(data, size);
}

#endif
