/* Checksums of a changed packed buffer made right again, so that what lies behind them is looked at; for tests and fuzz
 * targets. Include after packbuf.h. Must not know: what was changed. */
#ifndef SEALING_H
#define SEALING_H

#include "bytes.h"
#include <string.h>

#define SEAL_CHUNK 65536u /* of data to a checksum */

/* The head's checksum. Nothing where the head is not all there. */
static inline void seal_head(uint8_t *data, uint64_t size) {
  static const uint8_t zero[4] = {0, 0, 0, 0};
  uint64_t head;
  uint32_t crc;
  if (size < 128) return;
  head = bytes_load64(data + 32);
  if (head < 128 || head > size) return;
  crc = packbuf_checksum(packbuf_checksum(0, data, 60), zero, 4);
  bytes_store32(data + 60, packbuf_checksum(crc, data + 64, (size_t)(head - 64)));
}

/* Those of data, index and head, as far as they are there. */
static inline void seal_all(uint8_t *data, uint64_t size) {
  uint64_t head, index, at, total;
  if (size < 128) return;
  total = bytes_load64(data + 24), head = bytes_load64(data + 32), index = bytes_load64(data + 40);
  if (head < 128 || head > size || index > size - head) return;
  at = head + index;
  if (total > size || total < at) total = size;
  for (uint64_t i = 0; (data[20] & 1) && at < total && 4 * i + 4 <= index; i++, at += SEAL_CHUNK) {
    const uint64_t left = total - at;
    bytes_store32(data + head + 4 * i,
                      packbuf_checksum(0, data + at, (size_t)(left < SEAL_CHUNK ? left : SEAL_CHUNK)));
  }
  bytes_store32(data + 56, packbuf_checksum(0, data + head, (size_t)index));
  seal_head(data, size);
}

#endif
