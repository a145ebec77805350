/* core/sha256.c: SHA-256 (FIPS 180-4), for fingerprints of schema texts: in every language's library, so that any
 * consumer can compute one.
 * May use: base. Must not know: what is hashed. */

typedef struct packbuf_i_sha256 {
  uint32_t state[8];
  uint64_t size; /* bytes so far */
  uint8_t block[64];
} packbuf_i_sha256;

static const uint32_t packbuf_i_sha256_round[64] = {
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2};

static void packbuf_i_sha256_start(packbuf_i_sha256 *hash) {
  static const uint32_t start[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
  memset(hash, 0, sizeof *hash);
  memcpy(hash->state, start, sizeof start);
}

static uint32_t packbuf_i_rotate(uint32_t x, unsigned by) { return x >> by | x << (32 - by); }

static uint32_t packbuf_i_load32_big(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void packbuf_i_store32_big(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void packbuf_i_sha256_block(packbuf_i_sha256 *hash) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++) w[i] = packbuf_i_load32_big(hash->block + 4 * i);
  for (int i = 16; i < 64; i++) {
    const uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + w[i - 7] + (packbuf_i_rotate(a, 7) ^ packbuf_i_rotate(a, 18) ^ a >> 3) +
           (packbuf_i_rotate(b, 17) ^ packbuf_i_rotate(b, 19) ^ b >> 10);
  }
  memcpy(s, hash->state, sizeof s);
  for (int i = 0; i < 64; i++) { /* a is s[-i & 7]: the names move, not the words */
    const uint32_t a = s[-i & 7], b = s[(1 - i) & 7], c = s[(2 - i) & 7];
    const uint32_t e = s[(4 - i) & 7], f = s[(5 - i) & 7], g = s[(6 - i) & 7];
    const uint32_t one = s[(7 - i) & 7] + (packbuf_i_rotate(e, 6) ^ packbuf_i_rotate(e, 11) ^ packbuf_i_rotate(e, 25)) +
                         ((e & f) ^ (~e & g)) + packbuf_i_sha256_round[i] + w[i];
    s[(3 - i) & 7] += one;
    s[(7 - i) & 7] = one + (packbuf_i_rotate(a, 2) ^ packbuf_i_rotate(a, 13) ^ packbuf_i_rotate(a, 22)) +
                     ((a & b) ^ (a & c) ^ (b & c));
  }
  for (int i = 0; i < 8; i++) hash->state[i] += s[i];
}

static void packbuf_i_sha256_add(packbuf_i_sha256 *hash, const void *data, size_t size) {
  const uint8_t *from = (const uint8_t *)data;
  while (size) {
    const size_t at = (size_t)(hash->size % 64), part = size < 64 - at ? size : 64 - at;
    memcpy(hash->block + at, from, part);
    hash->size += part;
    from += part;
    size -= part;
    if (hash->size % 64 == 0) packbuf_i_sha256_block(hash);
  }
}

static void packbuf_i_sha256_end(packbuf_i_sha256 *hash, uint8_t digest[32]) {
  static const uint8_t pad[64] = {0x80};
  const uint64_t bits = hash->size * 8;
  uint8_t length[8];
  packbuf_i_store32_big(length, (uint32_t)(bits >> 32));
  packbuf_i_store32_big(length + 4, (uint32_t)bits);
  packbuf_i_sha256_add(hash, pad, 1 + (size_t)((119 - hash->size % 64) % 64));
  packbuf_i_sha256_add(hash, length, 8);
  for (int i = 0; i < 8; i++) packbuf_i_store32_big(digest + 4 * i, hash->state[i]);
}
