/* core/gather.c: copying short rows that lie anywhere. What limits it is the wait for each row's first lines, so while
 * one row is copied the lines of the next are loaded. One body for each vector width: wide stores keep the store
 * queue, behind which everything waits, short.
 * May use: the CPU's features. Must not know: what is copied. */

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

static packbuf_i_gather packbuf_i_gather_best(void) {
  if (__builtin_cpu_supports("avx512f")) return packbuf_i_gather_avx512;
  if (__builtin_cpu_supports("avx")) return packbuf_i_gather_avx;
  return packbuf_i_gather_sse2;
}

#else

static void packbuf_i_gather_plain(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead) {
  (void)ahead;
  if (size) memcpy(dst, src, size);
}

static packbuf_i_gather packbuf_i_gather_best(void) { return packbuf_i_gather_plain; }

#endif
