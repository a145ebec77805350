/* core/gather.c: copying short rows that lie anywhere. What limits it is the wait for each row's first lines, so while
 * one row is copied the lines of the next are loaded. One body for each vector width: wide stores keep the store
 * queue, behind which everything waits, short.
 * May use: cpu. Must not know: what is copied. */

/* Copies size bytes; `ahead` is where the next row begins (NULL: unknown). */
typedef void (*packbuf_i_gather)(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead);

#if PACKBUF_I_X86

#define PACKBUF_I_GATHER(name, features, width)                                                                       \
  features static void packbuf_i_gather_##name(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead) { \
    typedef uint8_t vector __attribute__((vector_size(width), aligned(1), may_alias));                                \
    size_t at = 0;                                                                                                    \
    for (; ahead && at + 256 <= size; at += 256)                                                                      \
      for (size_t line = at; line < at + 256; line += 64) {                                                           \
        __builtin_prefetch(ahead + line);                                                                             \
        for (size_t i = line; i < line + 64; i += width)                                                              \
          *(vector *)(void *)(dst + i) = *(const vector *)(const void *)(src + i);                                    \
      }                                                                                                               \
    if (at < size) memcpy(dst + at, src + at, size - at);                                                             \
  }

PACKBUF_I_GATHER(sse2, , 16)
PACKBUF_I_GATHER(avx, __attribute__((target("avx"))), 32)
PACKBUF_I_GATHER(avx512, __attribute__((target("avx512f"))), 64)

/* The same with non-temporal stores, which the caller fences: for long rows, whose own bytes are loaded ahead too. */
#define PACKBUF_I_STREAM(name, features, type, width, load, store)                                                    \
  features static void packbuf_i_stream_##name(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead) { \
    size_t at = (size_t)(0u - (uintptr_t)dst) & 63u, distance = size < 4096 ? size : 4096;                            \
    if (at > size) at = size;                                                                                         \
    if (at) memcpy(dst, src, at);                                                                                     \
    for (; at + 64 <= size; at += 64) {                                                                               \
      size_t left = size - at;                                                                                        \
      if (left > distance) __builtin_prefetch(src + at + distance);                                                   \
      else if (ahead) __builtin_prefetch(ahead + (distance - left));                                                  \
      for (size_t i = at; i < at + 64; i += width)                                                                    \
        store((type *)(void *)(dst + i), load((const type *)(const void *)(src + i)));                                \
    }                                                                                                                 \
    if (at < size) memcpy(dst + at, src + at, size - at);                                                             \
  }

PACKBUF_I_STREAM(sse2, , __m128i, 16, _mm_loadu_si128, _mm_stream_si128)
PACKBUF_I_STREAM(avx, __attribute__((target("avx"))), __m256i, 32, _mm256_loadu_si256, _mm256_stream_si256)

static packbuf_i_gather packbuf_i_stream_choose(unsigned has) {
  return has & PACKBUF_I_CPU_AVX ? packbuf_i_stream_avx : packbuf_i_stream_sse2;
}

static packbuf_i_gather packbuf_i_gather_choose(unsigned has) {
  if (has & PACKBUF_I_CPU_AVX512F) return packbuf_i_gather_avx512;
  return has & PACKBUF_I_CPU_AVX ? packbuf_i_gather_avx : packbuf_i_gather_sse2;
}

#else

static void packbuf_i_gather_plain(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead) {
  (void)ahead;
  if (size) memcpy(dst, src, size);
}

static packbuf_i_gather packbuf_i_stream_choose(unsigned has) {
  (void)has;
  return packbuf_i_gather_plain;
}

static packbuf_i_gather packbuf_i_gather_choose(unsigned has) { return packbuf_i_stream_choose(has); }

#endif

static packbuf_i_gather packbuf_i_stream_best(void) {
  return PACKBUF_I_CHOSEN(stream, packbuf_i_stream_choose(PACKBUF_I_CPU(PACKBUF_I_CPU_AVX)));
}

static packbuf_i_gather packbuf_i_gather_best(void) {
  return PACKBUF_I_CHOSEN(gather, packbuf_i_gather_choose(PACKBUF_I_CPU(PACKBUF_I_CPU_AVX | PACKBUF_I_CPU_AVX512F)));
}
