/* core/lanes_simde.c: the kernels of core/lanes.c in vectors of 16 bytes with the intrinsics of SSE4, which SIMDe makes
 * of what the processor has: NEON's, or plain C. With PACKBUF_SIMDE=1 only.
 * May use: base, lanes.c, lanes_vector.c, lanes_intrinsics.c. Must not know: blocks, their modes and headers, columns,
 * errors. */

#define PACKBUF_I_LANES_SIMDE 0
#if PACKBUF_SIMDE && PACKBUF_I_LANES_VECTORS
#undef PACKBUF_I_LANES_SIMDE
#define PACKBUF_I_LANES_SIMDE 1
#include <simde/x86/sse4.2.h>

PACKBUF_I_LANES_UNITS(simde, 16, )
PACKBUF_I_LANES_WHICH(simde, 16, )

PACKBUF_I_LANES_INLINE simde__m128i packbuf_i_simde_blend(simde__m128i a, simde__m128i b, simde__m128i mask) {
  return (simde__m128i)(((packbuf_i_simde_v)a & ~(packbuf_i_simde_v)mask) |
                        ((packbuf_i_simde_v)b & (packbuf_i_simde_v)mask));
}

PACKBUF_I_LANES_TESTS(simde, simde_mm, si128, simde__m128i, packbuf_i_simde_blend, )

PACKBUF_I_LANES_INLINE void packbuf_i_simde_put(uint8_t *to, packbuf_i_simde_v x, int stream) {
  packbuf_i_vector_put(to, (packbuf_i_vector_v)x, stream);
}

PACKBUF_I_LANES_INLINE int packbuf_i_simde_any(packbuf_i_simde_v x) { return packbuf_i_simde_or(x) != 0; }

PACKBUF_I_LANES_ROWS(simde, 16, )
PACKBUF_I_LANES_SET(simde, )

PACKBUF_I_LANES_INLINE packbuf_i_simde_v packbuf_i_simde_tops(unsigned T, const uint8_t *units, unsigned width) {
  const packbuf_i_simde_v8 columns32 = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15},
                           columns64 = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
  packbuf_i_simde_v x = {0};
  PACKBUF_I_LANES_EACH(k, T / 8) {
    const packbuf_i_simde_v top = packbuf_i_simde_right(T, packbuf_i_simde_load(units + k * 16), width);
    x |= packbuf_i_simde_left(T, top, 8 * k);
  }
  return (packbuf_i_simde_v)simde_mm_shuffle_epi8((simde__m128i)x, (simde__m128i)(T == 64 ? columns64 : columns32));
}

/* Entry b, byte i: the number of the i-th bit that is set in b. */
/* clang-format off */
#define PACKBUF_I_FRONT_BIT(b, i, rest) ((rest) << 8 * ((b) >> (i) & 1) | (uint64_t)((b) >> (i) & 1) * (i))
#define PACKBUF_I_FRONT(b)                                                                                \
  PACKBUF_I_FRONT_BIT(b, 0, PACKBUF_I_FRONT_BIT(b, 1, PACKBUF_I_FRONT_BIT(b, 2, PACKBUF_I_FRONT_BIT(b, 3, \
  PACKBUF_I_FRONT_BIT(b, 4, PACKBUF_I_FRONT_BIT(b, 5, PACKBUF_I_FRONT_BIT(b, 6,                           \
  PACKBUF_I_FRONT_BIT(b, 7, (uint64_t)0))))))))
#define PACKBUF_I_FRONT4(b) \
  PACKBUF_I_FRONT(b), PACKBUF_I_FRONT((b) + 1), PACKBUF_I_FRONT((b) + 2), PACKBUF_I_FRONT((b) + 3)
#define PACKBUF_I_FRONT16(b) \
  PACKBUF_I_FRONT4(b), PACKBUF_I_FRONT4((b) + 4), PACKBUF_I_FRONT4((b) + 8), PACKBUF_I_FRONT4((b) + 12)
/* clang-format on */
static const uint64_t packbuf_i_simde_fronts[256] = {
    PACKBUF_I_FRONT16(0),   PACKBUF_I_FRONT16(16),  PACKBUF_I_FRONT16(32),  PACKBUF_I_FRONT16(48),
    PACKBUF_I_FRONT16(64),  PACKBUF_I_FRONT16(80),  PACKBUF_I_FRONT16(96),  PACKBUF_I_FRONT16(112),
    PACKBUF_I_FRONT16(128), PACKBUF_I_FRONT16(144), PACKBUF_I_FRONT16(160), PACKBUF_I_FRONT16(176),
    PACKBUF_I_FRONT16(192), PACKBUF_I_FRONT16(208), PACKBUF_I_FRONT16(224), PACKBUF_I_FRONT16(240)};

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_simde_front(packbuf_i_simde_v bytes, packbuf_i_simde_v none, unsigned k,
                                                      unsigned bits) {
  const packbuf_i_simde_v from = {packbuf_i_simde_fronts[bits] + k * packbuf_i_repeat(8, 8), 0};
  (void)none;
  bytes = (packbuf_i_simde_v)simde_mm_shuffle_epi8((simde__m128i)bytes, (simde__m128i)from);
  return bytes[0];
}

/* Byte i: bit i. */
PACKBUF_I_LANES_INLINE uint64_t packbuf_i_simde_bits(unsigned bits) {
  const uint64_t each = packbuf_i_repeat(8, bits) & 0x8040201008040201u;
  return (each + packbuf_i_repeat(8, 127)) >> 7 & packbuf_i_repeat(8, 1);
}

/* Byte i: how many of the bits 0 to i are set. */
PACKBUF_I_LANES_INLINE uint64_t packbuf_i_simde_sums(unsigned bits) {
  return packbuf_i_simde_bits(bits) * packbuf_i_repeat(8, 1);
}

PACKBUF_I_LANES_INLINE unsigned packbuf_i_simde_ones(unsigned bits) {
  return (unsigned)(packbuf_i_simde_sums(bits) >> 56);
}

PACKBUF_I_LANES_INLINE packbuf_i_vector_v packbuf_i_simde_apart(uint64_t front, unsigned bits) {
  const uint64_t each = packbuf_i_simde_bits(bits), before = packbuf_i_simde_sums(bits) - each;
  const packbuf_i_vector_v bytes = {front, 0}, from = {before | (each ^ packbuf_i_repeat(8, 1)) << 7, 0}; /* 128: a 0 */
  return (packbuf_i_vector_v)simde_mm_shuffle_epi8((simde__m128i)bytes, (simde__m128i)from);
}

PACKBUF_I_LANES_INLINE packbuf_i_simde_v packbuf_i_simde_wide(unsigned T, packbuf_i_vector_v bytes, unsigned k) {
  const packbuf_i_simde_v8 first32 = {0, 128, 128, 128, 1, 128, 128, 128, 2, 128, 128, 128, 3, 128, 128, 128},
                           first64 = {0, 128, 128, 128, 128, 128, 128, 128, 1, 128, 128, 128, 128, 128, 128, 128};
  const packbuf_i_simde_v8 from = (T == 64 ? first64 : first32) + (uint8_t)(k * 128 / T);
  return (packbuf_i_simde_v)simde_mm_shuffle_epi8((simde__m128i)bytes, (simde__m128i)from);
}

PACKBUF_I_LANES_BYTES(simde, 16, simde_mm, si128, simde__m128i, )
PACKBUF_I_LANES_SPLITS(simde, simde, )

#endif /* PACKBUF_SIMDE */
