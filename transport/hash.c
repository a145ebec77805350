/* transport/hash.c: hashes under a key: SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012),
 * so that nobody outside can choose keys that meet in one place of a table; HMAC-SHA-256 (RFC 2104), for secrets; and
 * comparison in a time that does not tell where two secrets differ.
 * May use: base, sha256 of the core. Must not know: what is hashed. */

static uint64_t packbuf_i_rotate_left(uint64_t x, unsigned by) { return x << by | x >> (64 - by); }

static void packbuf_i_siphash_rounds(uint64_t v[4], int rounds) {
  while (rounds--) {
    v[0] += v[1], v[1] = packbuf_i_rotate_left(v[1], 13) ^ v[0], v[0] = packbuf_i_rotate_left(v[0], 32);
    v[2] += v[3], v[3] = packbuf_i_rotate_left(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = packbuf_i_rotate_left(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = packbuf_i_rotate_left(v[1], 17) ^ v[2], v[2] = packbuf_i_rotate_left(v[2], 32);
  }
}

static void packbuf_i_siphash_word(uint64_t v[4], uint64_t word) {
  v[3] ^= word;
  packbuf_i_siphash_rounds(v, 2);
  v[0] ^= word;
}

static uint64_t packbuf_i_siphash(const uint8_t key[16], const void *data, size_t size) {
  const uint8_t *const bytes = (const uint8_t *)data;
  const uint64_t k0 = packbuf_i_load64(key), k1 = packbuf_i_load64(key + 8);
  uint64_t v[4], last = (uint64_t)size << 56;
  size_t at = 0;
  v[0] = k0 ^ 0x736F6D6570736575u;
  v[1] = k1 ^ 0x646F72616E646F6Du;
  v[2] = k0 ^ 0x6C7967656E657261u;
  v[3] = k1 ^ 0x7465646279746573u;
  for (; size - at >= 8; at += 8) packbuf_i_siphash_word(v, packbuf_i_load64(bytes + at));
  for (unsigned shift = 0; at < size; at++, shift += 8) last |= (uint64_t)bytes[at] << shift;
  packbuf_i_siphash_word(v, last);
  v[2] ^= 0xFF;
  packbuf_i_siphash_rounds(v, 4);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

typedef struct packbuf_i_hmac {
  packbuf_i_sha256 inner, outer;
} packbuf_i_hmac;

static void packbuf_i_hmac_start(packbuf_i_hmac *hmac, const void *key, size_t size) {
  uint8_t pad[64];
  memset(pad, 0, sizeof pad);
  packbuf_i_sha256_start(&hmac->inner);
  packbuf_i_sha256_start(&hmac->outer);
  if (size > sizeof pad) { /* longer keys are hashed first */
    packbuf_i_sha256 hash;
    packbuf_i_sha256_start(&hash);
    packbuf_i_sha256_add(&hash, key, size);
    packbuf_i_sha256_end(&hash, pad);
  } else if (size) memcpy(pad, key, size);
  for (size_t i = 0; i < sizeof pad; i++) pad[i] ^= 0x36;
  packbuf_i_sha256_add(&hmac->inner, pad, sizeof pad);
  for (size_t i = 0; i < sizeof pad; i++) pad[i] ^= 0x36 ^ 0x5C;
  packbuf_i_sha256_add(&hmac->outer, pad, sizeof pad);
}

static void packbuf_i_hmac_add(packbuf_i_hmac *hmac, const void *data, size_t size) {
  packbuf_i_sha256_add(&hmac->inner, data, size);
}

static void packbuf_i_hmac_end(packbuf_i_hmac *hmac, uint8_t digest[32]) {
  packbuf_i_sha256_end(&hmac->inner, digest);
  packbuf_i_sha256_add(&hmac->outer, digest, 32);
  packbuf_i_sha256_end(&hmac->outer, digest);
}

/* 1: equal; takes as long wherever they differ. */
static int packbuf_i_secret_equal(const void *a, const void *b, size_t size) {
  const volatile uint8_t *const x = (const volatile uint8_t *)a, *const y = (const volatile uint8_t *)b;
  unsigned differing = 0;
  for (size_t i = 0; i < size; i++) differing |= (unsigned)(x[i] ^ y[i]);
  return differing == 0;
}
