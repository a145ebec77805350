/* core/checksum.h: the checksum that packed buffers carry.
 * May use: nothing. Must not know: what is checked. */

/* CRC-32C (Castagnoli) of `size` bytes, going on from `crc` (0 to begin): packbuf_checksum(packbuf_checksum(0, a, n),
 * b, m) is that of a then b. Uses the fastest instructions of this processor. Guards against accidents, not against
 * attackers. Thread-safe. */
PACKBUF_API uint32_t packbuf_checksum(uint32_t crc, const void *data, size_t size);
/* The name of the instructions it uses here: "plain", "sse42", "vpclmul", "armcrc". */
PACKBUF_API const char *packbuf_checksum_kernel(void);
