/* core/common.c: how many leading bytes two stretches of memory have in common, 64 bytes at a time where the processor
 * compares that many at once.
 * May use: base, cpu. Must not know: what is compared. */

typedef uint64_t (*packbuf_i_comparer)(const uint8_t *a, const uint8_t *b, uint64_t size);

static uint64_t packbuf_i_common_plain(const uint8_t *a, const uint8_t *b, uint64_t size) {
  uint64_t at = 0;
  while (size - at >= 128 && memcmp(a + at, b + at, 128) == 0) at += 128;
  while (size - at >= 8 && packbuf_i_load64(a + at) == packbuf_i_load64(b + at)) at += 8;
  while (at < size && a[at] == b[at]) at++;
  return at;
}

#if PACKBUF_I_X86

#define PACKBUF_I_COMMON_AVX2 __attribute__((target("avx2")))
#define PACKBUF_I_COMMON_AVX512 __attribute__((target("avx512f,avx512bw")))

/* Which of 64 bytes differ, the first in bit 0. */
PACKBUF_I_COMMON_AVX2 static inline uint64_t packbuf_i_differ_avx2(const uint8_t *a, const uint8_t *b) {
  uint64_t same = 0;
  for (unsigned i = 0; i < 2; i++) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(a + 32 * i));
    const __m256i y = _mm256_loadu_si256((const __m256i *)(const void *)(b + 32 * i));
    same |= (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, y)) << 32 * i;
  }
  return ~same;
}

PACKBUF_I_COMMON_AVX512 static inline uint64_t packbuf_i_differ_avx512(const uint8_t *a, const uint8_t *b) {
  return _mm512_cmpneq_epi8_mask(_mm512_loadu_si512((const void *)a), _mm512_loadu_si512((const void *)b));
}

/* The last 64 bytes may have been looked at in part: what was, is the same. */
#define PACKBUF_I_COMMON(name, features)                                                                             \
  features static uint64_t packbuf_i_common_##name(const uint8_t *a, const uint8_t *b, uint64_t size) {              \
    if (size < 64) return packbuf_i_common_plain(a, b, size);                                                        \
    for (uint64_t at = 0;; at = size - at < 128 ? size - 64 : at + 64) {                                             \
      const uint64_t differ = packbuf_i_differ_##name(a + at, b + at);                                               \
      if (differ) return at + packbuf_i_first_set(differ);                                                           \
      if (at == size - 64) return size;                                                                              \
    }                                                                                                                \
  }

PACKBUF_I_COMMON(avx2, PACKBUF_I_COMMON_AVX2)
PACKBUF_I_COMMON(avx512, PACKBUF_I_COMMON_AVX512)

#endif

static packbuf_i_comparer packbuf_i_comparer_choose(unsigned has) {
#if PACKBUF_I_X86
  if (has & PACKBUF_I_CPU_AVX512F && has & PACKBUF_I_CPU_AVX512BW) return packbuf_i_common_avx512;
  if (has & PACKBUF_I_CPU_AVX2) return packbuf_i_common_avx2;
#endif
  (void)has;
  return packbuf_i_common_plain;
}

static uint64_t packbuf_i_common(const uint8_t *a, const uint8_t *b, uint64_t size) {
  const unsigned has = PACKBUF_I_CPU(PACKBUF_I_CPU_AVX2 | PACKBUF_I_CPU_AVX512F | PACKBUF_I_CPU_AVX512BW);
  return a == b ? size : PACKBUF_I_CHOSEN(comparer, packbuf_i_comparer_choose(has))(a, b, size);
}
