/* core/lanes_vector.c: the kernels of core/lanes.c in the vector extension of GCC and Clang, as one body for vectors of
 * 16, 32 or 64 bytes: rows outermost, all vectors of a row together, the words in registers. Its first instance is the
 * set "vector", of 16 bytes, for what every processor of its kind has (SSE2, NEON).
 * May use: base, lanes.c. Must not know: blocks, their modes and headers, columns, errors. */

#if !PACKBUF_NO_SIMD && defined(__GNUC__) && !defined(__TINYC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && \
    (defined(__x86_64__) || defined(__ARM_NEON) || defined(__wasm_simd128__))
#define PACKBUF_I_LANES_VECTORS 1
#else
#define PACKBUF_I_LANES_VECTORS 0
#endif

#if PACKBUF_I_LANES_VECTORS

#if defined(__clang__)
#define PACKBUF_I_LANES_UNROLL _Pragma("unroll")
#else
#define PACKBUF_I_LANES_UNROLL _Pragma("GCC unroll 8")
#endif
/* A loop over vectors in registers. */
#define PACKBUF_I_LANES_EACH(k, count) PACKBUF_I_LANES_UNROLL for (unsigned k = 0; k < (count); k++)

enum { PACKBUF_I_WORDS_AHEAD = 1536 }; /* bytes of words that are loaded ahead while units are streamed */

/* Numbers from 0 up, of 8, 16, 32 and 64 bits. */
static const uint8_t packbuf_i_count8[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                             16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                             32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                             48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
static const uint16_t packbuf_i_count16[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                               16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static const uint32_t packbuf_i_count32[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const uint64_t packbuf_i_count64[8] = {0, 1, 2, 3, 4, 5, 6, 7};

/* 64 / T units of the same bits. */
PACKBUF_I_LANES_INLINE uint64_t packbuf_i_repeat(unsigned T, uint64_t unit) {
  return (unit & packbuf_i_low_bits(T)) * (UINT64_MAX / packbuf_i_low_bits(T));
}

/* The OR of the units of T bits in a 64-bit word. */
PACKBUF_I_LANES_INLINE uint64_t packbuf_i_fold(unsigned T, uint64_t word) {
  for (unsigned half = 32; half >= T; half /= 2) word |= word >> half;
  return word & packbuf_i_low_bits(T);
}

PACKBUF_I_LANES_INLINE void packbuf_i_load_soon(const uint8_t *from, size_t distance) {
  __builtin_prefetch((const void *)((uintptr_t)from + distance)); /* never faults */
}

/* Vectors of BYTES bytes, typed as 64-bit numbers, and what can be done to their units. */
#define PACKBUF_I_LANES_UNITS(set, BYTES, attributes)                                                                  \
  typedef uint64_t packbuf_i_##set##_v __attribute__((vector_size(BYTES)));                                            \
  typedef uint8_t packbuf_i_##set##_v8 __attribute__((vector_size(BYTES)));                                            \
  typedef uint16_t packbuf_i_##set##_v16 __attribute__((vector_size(BYTES)));                                          \
  typedef uint32_t packbuf_i_##set##_v32 __attribute__((vector_size(BYTES)));                                          \
  typedef int8_t packbuf_i_##set##_s8 __attribute__((vector_size(BYTES)));                                             \
  typedef int16_t packbuf_i_##set##_s16 __attribute__((vector_size(BYTES)));                                           \
  typedef int32_t packbuf_i_##set##_s32 __attribute__((vector_size(BYTES)));                                           \
  typedef int64_t packbuf_i_##set##_s64 __attribute__((vector_size(BYTES)));                                           \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_load(const void *p) {                        \
    packbuf_i_##set##_v x;                                                                                             \
    memcpy(&x, p, BYTES);                                                                                              \
    return x;                                                                                                          \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_all(uint64_t word) {                         \
    const packbuf_i_##set##_v zero = {0};                                                                              \
    return zero + word;                                                                                                \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes uint64_t packbuf_i_##set##_or(packbuf_i_##set##_v x) {                             \
    uint64_t word = 0;                                                                                                 \
    PACKBUF_I_LANES_EACH(i, BYTES / 8) word |= x[i];                                                                   \
    return word;                                                                                                       \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_left(unsigned T, packbuf_i_##set##_v x,      \
                                                                               unsigned count) {                       \
    typedef packbuf_i_##set##_v V;                                                                                     \
    if (T == 8)                                                                                                        \
      return (V)((packbuf_i_##set##_v16)x << (uint16_t)count) &                                                        \
             packbuf_i_##set##_all(packbuf_i_repeat(8, 255u << count));                                                \
    if (T == 16) return (V)((packbuf_i_##set##_v16)x << (uint16_t)count);                                              \
    if (T == 32) return (V)((packbuf_i_##set##_v32)x << (uint32_t)count);                                              \
    return x << (uint64_t)count;                                                                                       \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_right(unsigned T, packbuf_i_##set##_v x,     \
                                                                                unsigned count) {                      \
    typedef packbuf_i_##set##_v V;                                                                                     \
    if (T == 8)                                                                                                        \
      return (V)((packbuf_i_##set##_v16)x >> (uint16_t)count) &                                                        \
             packbuf_i_##set##_all(packbuf_i_repeat(8, 255u >> count));                                                \
    if (T == 16) return (V)((packbuf_i_##set##_v16)x >> (uint16_t)count);                                              \
    if (T == 32) return (V)((packbuf_i_##set##_v32)x >> (uint32_t)count);                                              \
    return x >> (uint64_t)count;                                                                                       \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_plus(unsigned T, packbuf_i_##set##_v a,      \
                                                                               packbuf_i_##set##_v b) {                \
    typedef packbuf_i_##set##_v V;                                                                                     \
    if (T == 8) return (V)((packbuf_i_##set##_v8)a + (packbuf_i_##set##_v8)b);                                         \
    if (T == 16) return (V)((packbuf_i_##set##_v16)a + (packbuf_i_##set##_v16)b);                                      \
    if (T == 32) return (V)((packbuf_i_##set##_v32)a + (packbuf_i_##set##_v32)b);                                      \
    return a + b;                                                                                                      \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_minus(unsigned T, packbuf_i_##set##_v a,     \
                                                                                packbuf_i_##set##_v b) {               \
    typedef packbuf_i_##set##_v V;                                                                                     \
    if (T == 8) return (V)((packbuf_i_##set##_v8)a - (packbuf_i_##set##_v8)b);                                         \
    if (T == 16) return (V)((packbuf_i_##set##_v16)a - (packbuf_i_##set##_v16)b);                                      \
    if (T == 32) return (V)((packbuf_i_##set##_v32)a - (packbuf_i_##set##_v32)b);                                      \
    return a - b;                                                                                                      \
  }                                                                                                                    \
  /* all ones where a unit is not 0 */                                                                                 \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_set(unsigned T, packbuf_i_##set##_v x) {     \
    typedef packbuf_i_##set##_v V;                                                                                     \
    const V zero = {0};                                                                                                \
    if (T == 8) return (V)((packbuf_i_##set##_v8)x != (packbuf_i_##set##_v8)zero);                                     \
    if (T == 16) return (V)((packbuf_i_##set##_v16)x != (packbuf_i_##set##_v16)zero);                                  \
    if (T == 32) return (V)((packbuf_i_##set##_v32)x != (packbuf_i_##set##_v32)zero);                                  \
    return (V)(x != zero);                                                                                             \
  }                                                                                                                    \
  /* value + i step, i = 0, 1, 2, ... */                                                                               \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_ramp(unsigned T, uint64_t value,             \
                                                                               uint64_t step) {                        \
    typedef packbuf_i_##set##_v V;                                                                                     \
    const V by = packbuf_i_##set##_all(packbuf_i_repeat(T, step)),                                                     \
            from = packbuf_i_##set##_all(packbuf_i_repeat(T, value));                                                  \
    const V numbers = packbuf_i_##set##_load(T == 8    ? (const void *)packbuf_i_count8                                \
                                             : T == 16 ? (const void *)packbuf_i_count16                               \
                                             : T == 32 ? (const void *)packbuf_i_count32                               \
                                                       : (const void *)packbuf_i_count64);                             \
    if (T == 8) return packbuf_i_##set##_plus(8, from, (V)((packbuf_i_##set##_v8)by * (packbuf_i_##set##_v8)numbers)); \
    if (T == 16)                                                                                                       \
      return packbuf_i_##set##_plus(16, from, (V)((packbuf_i_##set##_v16)by * (packbuf_i_##set##_v16)numbers));        \
    if (T == 32)                                                                                                       \
      return packbuf_i_##set##_plus(32, from, (V)((packbuf_i_##set##_v32)by * (packbuf_i_##set##_v32)numbers));        \
    return from + by * numbers;                                                                                        \
  }

/* Where a set has no better way: a bit for each unit that is not 0. */
#define PACKBUF_I_LANES_WHICH(set, BYTES, attributes)                                                     \
  PACKBUF_I_LANES_INLINE attributes uint64_t packbuf_i_##set##_which(unsigned T, packbuf_i_##set##_v x) { \
    const packbuf_i_##set##_v full = packbuf_i_##set##_set(T, x);                                         \
    const unsigned some = 64 / T; /* units of a word */                                                   \
    uint64_t bits = 0;                                                                                    \
    PACKBUF_I_LANES_EACH(i, BYTES / 8) {                                                                  \
      const uint64_t ones = full[i] & packbuf_i_repeat(T, 1);                                             \
      const uint64_t word = T == 8    ? ones * 0x0102040810204080u >> 56                                  \
                            : T == 16 ? ones * 0x0001000200040008u >> 48 & 15                             \
                            : T == 32 ? ones >> 31 | (ones & 1)                                           \
                                      : ones;                                                             \
      bits |= word << i * some;                                                                           \
    }                                                                                                     \
    return bits;                                                                                          \
  }

/* Where a set has no better ones: the least and largest of signed units, whether any bit is set, the bytes of 0 at
 * the start. */
#define PACKBUF_I_LANES_COMMON(set, BYTES, attributes)                                                             \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_below(unsigned T, packbuf_i_##set##_v a, \
                                                                                packbuf_i_##set##_v b) {           \
    typedef packbuf_i_##set##_v V;                                                                                 \
    if (T == 8) return (V)((packbuf_i_##set##_s8)a < (packbuf_i_##set##_s8)b);                                     \
    if (T == 16) return (V)((packbuf_i_##set##_s16)a < (packbuf_i_##set##_s16)b);                                  \
    if (T == 32) return (V)((packbuf_i_##set##_s32)a < (packbuf_i_##set##_s32)b);                                  \
    return (V)((packbuf_i_##set##_s64)a < (packbuf_i_##set##_s64)b);                                               \
  }                                                                                                                \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_least(unsigned T, packbuf_i_##set##_v a, \
                                                                                packbuf_i_##set##_v b) {           \
    const packbuf_i_##set##_v below = packbuf_i_##set##_below(T, a, b);                                            \
    return (a & below) | (b & ~below);                                                                             \
  }                                                                                                                \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_most(unsigned T, packbuf_i_##set##_v a,  \
                                                                               packbuf_i_##set##_v b) {            \
    const packbuf_i_##set##_v below = packbuf_i_##set##_below(T, a, b);                                            \
    return (b & below) | (a & ~below);                                                                             \
  }                                                                                                                \
  PACKBUF_I_LANES_INLINE attributes int packbuf_i_##set##_any(packbuf_i_##set##_v x) {                             \
    return packbuf_i_##set##_or(x) != 0;                                                                           \
  }                                                                                                                \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_zeros(packbuf_i_##set##_v x) {                      \
    for (unsigned i = 0; i < BYTES / 8; i++)                                                                       \
      if (x[i]) return 8 * i + packbuf_i_first_set(x[i]) / 8;                                                      \
    return BYTES;                                                                                                  \
  }

/* Whole rows. A set has _put (a store, non-temporal or not), _least, _most, _which (bits of the units that are not 0),
 * _any and _zeros (the bytes of 0 that a vector begins with). */
#define PACKBUF_I_LANES_ROWS(set, BYTES, attributes)                                                                   \
  PACKBUF_I_LANES_INLINE attributes int packbuf_i_##set##_streams(const uint8_t *to, int stream) {                     \
    return stream && (uintptr_t)to % BYTES == 0;                                                                       \
  }                                                                                                                    \
  /* cut: codes may have more bits than `width` */                                                                     \
  PACKBUF_I_LANES_INLINE attributes uint64_t packbuf_i_##set##_pack_cut(                                               \
      unsigned T, const uint8_t *units, unsigned rows, const packbuf_i_codes *codes, uint8_t *words,                   \
      const uint8_t *ahead, int stream, int cut) {                                                                     \
    typedef packbuf_i_##set##_v V;                                                                                     \
    enum { N = PACKBUF_I_ROW / BYTES, G = N < 4 ? (int)N : 4 }; /* vectors of a row, and those done together */        \
    const unsigned width = codes->width, shift = codes->shift, zero = codes->zero;                                     \
    const V base = packbuf_i_##set##_all(packbuf_i_repeat(T, codes->base - 2u * zero)), none = {0};                    \
    const V low = packbuf_i_##set##_all(packbuf_i_repeat(T, packbuf_i_low_bits(width)));                               \
    V seen = none;                                                                                                     \
    stream = packbuf_i_##set##_streams(words, stream);                                                                 \
    for (unsigned g = 0; g < N; g += G) {                                                                              \
      const uint8_t *from = units + g * BYTES;                                                                         \
      uint8_t *to = words + g * BYTES;                                                                                 \
      unsigned used = 0;                                                                                               \
      V word[G], x[G];                                                                                                 \
      PACKBUF_I_LANES_EACH(k, G) word[k] = none;                                                                       \
      for (unsigned r = 0; r < rows; r++, from += PACKBUF_I_ROW) {                                                     \
        if (ahead && g == 0) {                                                                                         \
          packbuf_i_load_soon(ahead, r *(size_t)PACKBUF_I_ROW);                                                        \
          packbuf_i_load_soon(ahead, r *(size_t)PACKBUF_I_ROW + 64);                                                   \
        }                                                                                                              \
        PACKBUF_I_LANES_EACH(k, G) x[k] = packbuf_i_##set##_minus(T, packbuf_i_##set##_load(from + k * BYTES), base);  \
        if (PACKBUF_I_UNLIKELY(zero)) {                                                                                \
          const uint8_t *again = from;                                                                                 \
          PACKBUF_I_FETCHED(again); /* else all are kept in registers for this */                                      \
          PACKBUF_I_LANES_EACH(k, G) {                                                                                 \
            const V unit = packbuf_i_##set##_load(again + k * BYTES);                                                  \
            const V other = packbuf_i_##set##_set(T, packbuf_i_##set##_left(T, unit, 1));                              \
            x[k] = (x[k] & other) | (packbuf_i_##set##_right(T, unit, T - 1) & ~other);                                \
          }                                                                                                            \
        }                                                                                                              \
        if (shift > 0) {                                                                                               \
          PACKBUF_I_LANES_EACH(k, G) x[k] = packbuf_i_##set##_right(T, x[k], shift);                                   \
        }                                                                                                              \
        PACKBUF_I_LANES_EACH(k, G) {                                                                                   \
          seen |= x[k];                                                                                                \
          if (cut) x[k] &= low;                                                                                        \
          word[k] |= packbuf_i_##set##_left(T, x[k], used);                                                            \
        }                                                                                                              \
        used += width;                                                                                                 \
        if (used >= T) {                                                                                               \
          used -= T;                                                                                                   \
          PACKBUF_I_LANES_EACH(k, G) {                                                                                 \
            packbuf_i_##set##_put(to + k * BYTES, word[k], stream);                                                    \
            word[k] = used > 0 ? packbuf_i_##set##_right(T, x[k], width - used) : none;                                \
          }                                                                                                            \
          to += PACKBUF_I_ROW;                                                                                         \
        }                                                                                                              \
      }                                                                                                                \
      if (used > 0) {                                                                                                  \
        PACKBUF_I_LANES_EACH(k, G)                                                                                     \
        packbuf_i_##set##_put(to + k * BYTES, word[k], stream);                                                        \
      }                                                                                                                \
    }                                                                                                                  \
    return packbuf_i_fold(T, packbuf_i_##set##_or(seen));                                                              \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes uint64_t packbuf_i_##set##_pack(unsigned T, const uint8_t *units, unsigned rows,   \
                                                                    const packbuf_i_codes *codes, uint8_t *words,      \
                                                                    const uint8_t *ahead, int stream) {                \
    return packbuf_i_##set##_pack_cut(T, units, rows, codes, words, ahead, stream, 0);                                 \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes void packbuf_i_##set##_unpack(unsigned T, const uint8_t *words, unsigned first,    \
                                                                  unsigned rows, const packbuf_i_codes *codes,         \
                                                                  uint8_t *units, int stream) {                        \
    typedef packbuf_i_##set##_v V;                                                                                     \
    enum { N = PACKBUF_I_ROW / BYTES, G = N < 4 ? (int)N : 4 };                                                        \
    const unsigned width = codes->width, shift = codes->shift, zero = codes->zero;                                     \
    const V base = packbuf_i_##set##_all(packbuf_i_repeat(T, codes->base - 2u * zero));                                \
    const V low = packbuf_i_##set##_all(packbuf_i_repeat(T, packbuf_i_low_bits(width)));                               \
    stream = packbuf_i_##set##_streams(units, stream);                                                                 \
    for (unsigned g = 0; g < N; g += G) {                                                                              \
      const uint8_t *from = words + first * width / T * PACKBUF_I_ROW + g * BYTES;                                     \
      uint8_t *to = units + g * BYTES;                                                                                 \
      unsigned used = first * width % T;                                                                               \
      V word[G], x[G];                                                                                                 \
      PACKBUF_I_LANES_EACH(k, G) word[k] = packbuf_i_##set##_load(from + k * BYTES);                                   \
      for (unsigned r = 0; r < rows; r++, to += PACKBUF_I_ROW) {                                                       \
        PACKBUF_I_LANES_EACH(k, G) x[k] = packbuf_i_##set##_right(T, word[k], used);                                   \
        used += width;                                                                                                 \
        if (used > T || (used == T && r + 1 < rows)) {                                                                 \
          used -= T;                                                                                                   \
          from += PACKBUF_I_ROW;                                                                                       \
          if (stream) packbuf_i_load_soon(from, PACKBUF_I_WORDS_AHEAD);                                                \
          if (stream && BYTES > 16) packbuf_i_load_soon(from, PACKBUF_I_WORDS_AHEAD + 64);                             \
          PACKBUF_I_LANES_EACH(k, G) word[k] = packbuf_i_##set##_load(from + k * BYTES);                               \
          if (used > 0) {                                                                                              \
            PACKBUF_I_LANES_EACH(k, G) x[k] |= packbuf_i_##set##_left(T, word[k], width - used);                       \
          }                                                                                                            \
        }                                                                                                              \
        if (PACKBUF_I_UNLIKELY(zero)) {                                                                                \
          PACKBUF_I_LANES_EACH(k, G) {                                                                                 \
            V other;                                                                                                   \
            x[k] &= low;                                                                                               \
            other = packbuf_i_##set##_set(T, packbuf_i_##set##_right(T, x[k], 1));                                     \
            x[k] =                                                                                                     \
                (packbuf_i_##set##_plus(T, x[k], base) & other) | (packbuf_i_##set##_left(T, x[k], T - 1) & ~other);   \
          }                                                                                                            \
        } else {                                                                                                       \
          PACKBUF_I_LANES_EACH(k, G) x[k] &= low;                                                                      \
          if (shift > 0) {                                                                                             \
            PACKBUF_I_LANES_EACH(k, G) x[k] = packbuf_i_##set##_left(T, x[k], shift);                                  \
          }                                                                                                            \
          PACKBUF_I_LANES_EACH(k, G) x[k] = packbuf_i_##set##_plus(T, x[k], base);                                     \
        }                                                                                                              \
        PACKBUF_I_LANES_EACH(k, G) packbuf_i_##set##_put(to + k * BYTES, x[k], stream);                                \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  /* The least (way 0) or largest signed unit of a vector. */                                                          \
  PACKBUF_I_LANES_INLINE attributes uint64_t packbuf_i_##set##_one(unsigned T, packbuf_i_##set##_v x, int way) {       \
    const uint64_t sign = (uint64_t)1 << (T - 1);                                                                      \
    uint64_t best = 0;                                                                                                 \
    uint8_t units[BYTES];                                                                                              \
    memcpy(units, &x, BYTES);                                                                                          \
    for (unsigned i = 0; i < BYTES; i += T / 8) {                                                                      \
      const uint64_t unit = packbuf_i_unit_load(T, units + i) ^ sign;                                                  \
      if (i == 0 || (way ? unit > best : unit < best)) best = unit;                                                    \
    }                                                                                                                  \
    return best ^ sign;                                                                                                \
  }                                                                                                                    \
  /* Signed order after the exchange of `flip`; least_set when it is not NULL. */                                      \
  PACKBUF_I_LANES_INLINE attributes void packbuf_i_##set##_range(                                                      \
      unsigned T, const uint8_t *units, unsigned rows, uint64_t flip, packbuf_i_spread *spread, uint64_t *least_set) { \
    typedef packbuf_i_##set##_v V;                                                                                     \
    const uint64_t sign = packbuf_i_repeat(T, (uint64_t)1 << (T - 1));                                                 \
    const V first = packbuf_i_##set##_all(packbuf_i_repeat(T, packbuf_i_unit_load(T, units)));                         \
    const V turn = packbuf_i_##set##_all(packbuf_i_repeat(T, flip));                                                   \
    const V up = packbuf_i_##set##_all(sign);                                                                          \
    V least[2], most[2], set[2], differ = {0}, zeros = {0}, others = {0};                                              \
    for (unsigned k = 0; k < 2; k++) {                                                                                 \
      least[k] = most[k] = first ^ turn;                                                                               \
      set[k] = ~up;                                                                                                    \
    }                                                                                                                  \
    for (unsigned i = 0; i < rows * PACKBUF_I_ROW; i += 2 * BYTES) {                                                   \
      PACKBUF_I_LANES_EACH(k, 2) {                                                                                     \
        const V x = packbuf_i_##set##_load(units + i + k * BYTES);                                                     \
        least[k] = packbuf_i_##set##_least(T, least[k], x ^ turn);                                                     \
        most[k] = packbuf_i_##set##_most(T, most[k], x ^ turn);                                                        \
        differ |= x ^ first;                                                                                           \
        if (least_set) {                                                                                               \
          const V other = packbuf_i_##set##_set(T, packbuf_i_##set##_left(T, x, 1));                                   \
          set[k] = packbuf_i_##set##_least(T, set[k], (x | ~other) ^ up);                                              \
          zeros |= ~other;                                                                                             \
          others |= other;                                                                                             \
        }                                                                                                              \
      }                                                                                                                \
    }                                                                                                                  \
    spread->least = packbuf_i_##set##_one(T, packbuf_i_##set##_least(T, least[0], least[1]), 0) ^ flip;                \
    spread->most = packbuf_i_##set##_one(T, packbuf_i_##set##_most(T, most[0], most[1]), 1) ^ flip;                    \
    spread->differ = packbuf_i_fold(T, packbuf_i_##set##_or(differ));                                                  \
    if (least_set) {                                                                                                   \
      *least_set =                                                                                                     \
          packbuf_i_##set##_one(T, packbuf_i_##set##_least(T, set[0], set[1]), 0) ^ (sign & packbuf_i_low_bits(T));    \
      spread->zeros = packbuf_i_##set##_or(zeros) != 0;                                                                \
      spread->others = packbuf_i_##set##_or(others) != 0;                                                              \
    }                                                                                                                  \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes void packbuf_i_##set##_scan(unsigned T, const uint8_t *units, unsigned rows,       \
                                                                packbuf_i_scan_kind kind, packbuf_i_spread *spread) {  \
    const uint64_t sign = (uint64_t)1 << (T - 1);                                                                      \
    packbuf_i_spread other;                                                                                            \
    if (PACKBUF_I_X86 && BYTES == 16 && T == 64) { /* SSE2 does not compare 64 bits */                                 \
      packbuf_i_plain_scan(T, units, rows, kind, spread);                                                              \
      return;                                                                                                          \
    }                                                                                                                  \
    packbuf_i_##set##_range(T, units, rows, kind == PACKBUF_I_SCAN_SIGNED ? 0 : sign, spread,                          \
                            kind == PACKBUF_I_SCAN_FLOATS ? &spread->least_set : NULL);                                \
    spread->top = spread->most;                                                                                        \
    if (kind == PACKBUF_I_SCAN_FLOATS) return;                                                                         \
    spread->least_set = 0;                                                                                             \
    spread->zeros = spread->others = 0;                                                                                \
    if (kind == PACKBUF_I_SCAN_UNSIGNED) return;                                                                       \
    if (!(spread->least & sign) || (spread->most & sign)) return; /* all of one sign */                                \
    packbuf_i_##set##_range(T, units, rows, sign, &other, NULL);                                                       \
    spread->top = other.most;                                                                                          \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes uint64_t packbuf_i_##set##_dense(unsigned T, const uint8_t *units, unsigned rows,  \
                                                                     uint64_t fill) {                                  \
    typedef packbuf_i_##set##_v V;                                                                                     \
    const V want = packbuf_i_##set##_all(packbuf_i_repeat(T, fill));                                                   \
    uint64_t dense = 0;                                                                                                \
    for (unsigned r = 0; r < rows; r++, units += PACKBUF_I_ROW) {                                                      \
      V other = {0};                                                                                                   \
      PACKBUF_I_LANES_EACH(k, PACKBUF_I_ROW / BYTES) other |= packbuf_i_##set##_load(units + k * BYTES) ^ want;        \
      dense |= (uint64_t)packbuf_i_##set##_any(other) << r;                                                            \
    }                                                                                                                  \
    return dense;                                                                                                      \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_bends(unsigned T, const uint8_t *units, unsigned rows,  \
                                                                     uint8_t *bitmap) {                                \
    typedef packbuf_i_##set##_v V;                                                                                     \
    unsigned count = 0;                                                                                                \
    for (unsigned r = 0; r < rows; r++, units += PACKBUF_I_ROW, bitmap += 128 / T) {                                   \
      uint64_t words[2] = {0, 0}; /* little-endian machines only */                                                    \
      PACKBUF_I_LANES_EACH(k, PACKBUF_I_ROW / BYTES) {                                                                 \
        const uint8_t *at = units + k * BYTES;                                                                         \
        const unsigned place = k * (8 * BYTES / T);                                                                    \
        const V before = packbuf_i_##set##_load(at - T / 8), after = packbuf_i_##set##_load(at + T / 8);               \
        const V here = packbuf_i_##set##_load(at), twice = packbuf_i_##set##_plus(T, here, here);                      \
        const V bend = packbuf_i_##set##_minus(T, packbuf_i_##set##_plus(T, before, after), twice);                    \
        words[place / 64] |= packbuf_i_##set##_which(T, bend) << place % 64;                                           \
      }                                                                                                                \
      memcpy(bitmap, words, 128 / T);                                                                                  \
      count += (unsigned)__builtin_popcountll(words[0]);                                                               \
      if (T == 8) count += (unsigned)__builtin_popcountll(words[1]);                                                   \
    }                                                                                                                  \
    return count;                                                                                                      \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_along(unsigned T, const uint8_t *units, unsigned count, \
                                                                     uint64_t value, uint64_t step) {                  \
    typedef packbuf_i_##set##_v V;                                                                                     \
    const unsigned some = count < 4 ? count : 4; /* lines often end at once */                                         \
    const unsigned here = 8 * BYTES / T;         /* units of a vector */                                               \
    unsigned at = packbuf_i_plain_along(T, units, some, value, step), same;                                            \
    V want, by;                                                                                                        \
    if (at < 4) return at;                                                                                             \
    if (count < here) return at + packbuf_i_plain_along(T, units + at * (T / 8), count - at, value + at * step, step); \
    want = packbuf_i_##set##_ramp(T, value + at * step, step);                                                         \
    by = packbuf_i_##set##_all(packbuf_i_repeat(T, here * step));                                                      \
    for (; count - at >= 4 * here; at += 4 * here) {                                                                   \
      const uint8_t *from = units + (size_t)at * (T / 8);                                                              \
      V next = want, other = {0};                                                                                      \
      PACKBUF_I_LANES_EACH(k, 4) {                                                                                     \
        other |= packbuf_i_##set##_load(from + k * BYTES) ^ next;                                                      \
        next = packbuf_i_##set##_plus(T, next, by);                                                                    \
      }                                                                                                                \
      if (packbuf_i_##set##_any(other)) break;                                                                         \
      want = next;                                                                                                     \
    }                                                                                                                  \
    for (; count - at >= here; at += here) {                                                                           \
      same = packbuf_i_##set##_zeros(packbuf_i_##set##_load(units + (size_t)at * (T / 8)) ^ want) / (T / 8);           \
      if (same < here) return at + same;                                                                               \
      want = packbuf_i_##set##_plus(T, want, by);                                                                      \
    }                                                                                                                  \
    if (at == count) return at;                                                                                        \
    at = count - here; /* the last vector has some of those before */                                                  \
    want = packbuf_i_##set##_ramp(T, value + at * step, step);                                                         \
    return at + packbuf_i_##set##_zeros(packbuf_i_##set##_load(units + (size_t)at * (T / 8)) ^ want) / (T / 8);        \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes void packbuf_i_##set##_line(unsigned T, uint8_t *units, unsigned count,            \
                                                                uint64_t value, uint64_t step, int stream) {           \
    typedef packbuf_i_##set##_v V;                                                                                     \
    const unsigned here = 8 * BYTES / T;                                                                               \
    unsigned at = 0;                                                                                                   \
    if (count >= here) {                                                                                               \
      V next = packbuf_i_##set##_ramp(T, value, step);                                                                 \
      const V by = packbuf_i_##set##_all(packbuf_i_repeat(T, here * step));                                            \
      stream = packbuf_i_##set##_streams(units, stream);                                                               \
      for (; count - at >= here; at += here) {                                                                         \
        packbuf_i_##set##_put(units + (size_t)at * (T / 8), next, stream);                                             \
        next = packbuf_i_##set##_plus(T, next, by);                                                                    \
      }                                                                                                                \
    }                                                                                                                  \
    packbuf_i_plain_line(T, units + (size_t)at * (T / 8), count - at, value + at * step, step, 0);                     \
  }                                                                                                                    \
  static attributes void packbuf_i_##set##_copy(uint8_t *to, const uint8_t *from, size_t size, int stream) {           \
    size_t at = packbuf_i_##set##_streams(to, stream) ? size / PACKBUF_I_ROW * PACKBUF_I_ROW : 0;                      \
    for (size_t i = 0; i < at; i += BYTES) packbuf_i_##set##_put(to + i, packbuf_i_##set##_load(from + i), 1);         \
    if (size > at) memcpy(to + at, from + at, size - at);                                                              \
  }

/* All that a set has, but for split and join. */
#define PACKBUF_I_LANES_SET(set, attributes) \
  PACKBUF_I_LANES_OF(set, 8, attributes)     \
  PACKBUF_I_LANES_OF(set, 16, attributes)    \
  PACKBUF_I_LANES_OF(set, 32, attributes)    \
  PACKBUF_I_LANES_OF(set, 64, attributes)

/* ---- vector: 16 bytes ---- */

PACKBUF_I_LANES_UNITS(vector, 16, )
PACKBUF_I_LANES_WHICH(vector, 16, )
PACKBUF_I_LANES_COMMON(vector, 16, )

PACKBUF_I_LANES_INLINE void packbuf_i_vector_put(uint8_t *to, packbuf_i_vector_v x, int stream) {
#if PACKBUF_I_X86
  if (stream) {
    _mm_stream_si128((__m128i *)(void *)to, (__m128i)x);
    return;
  }
#endif
  (void)stream;
  memcpy(to, &x, 16);
}

PACKBUF_I_LANES_ROWS(vector, 16, )
PACKBUF_I_LANES_SET(vector, )

/* The low bits as codes, the rest byte by byte. */
PACKBUF_I_LANES_INLINE unsigned packbuf_i_vector_split(unsigned T, const uint8_t *units, unsigned rows, unsigned width,
                                                       uint8_t *words, uint8_t *bitmap, uint8_t *high, uint64_t *all,
                                                       const uint8_t *ahead) {
  const packbuf_i_codes codes = {0, (uint8_t)width, 0, 0};
  unsigned count = 0;
  *all = packbuf_i_vector_pack_cut(T, units, rows, &codes, words, ahead, 0, 1);
  for (unsigned i = 0; i < rows * (128 / T); i++) {
    unsigned bits = 0;
    for (unsigned k = 0; k < 8; k++, units += T / 8) {
      const uint8_t byte = (uint8_t)(packbuf_i_unit_load(T, units) >> width);
      high[count] = byte;
      bits |= (unsigned)(byte != 0) << k;
      count += byte != 0;
    }
    bitmap[i] = (uint8_t)bits;
  }
  return count;
}

PACKBUF_I_LANES_INLINE unsigned packbuf_i_vector_join(unsigned T, const uint8_t *words, const uint8_t *bitmap,
                                                      const uint8_t *high, unsigned high_size, unsigned first,
                                                      unsigned rows, unsigned width, uint8_t *units, int stream) {
  const packbuf_i_codes codes = {0, (uint8_t)width, 0, 0};
  unsigned count = 0;
  (void)stream;
  if (T == 64) packbuf_i_vector_unpack_64(words, first, rows, &codes, units, 0);
  else packbuf_i_vector_unpack_32(words, first, rows, &codes, units, 0);
  for (unsigned i = 0; i < rows * (128 / T); i++, units += T) {
    for (unsigned bits = bitmap[first * (128 / T) + i]; bits != 0; bits &= bits - 1) {
      uint8_t *unit = units + packbuf_i_first_set(bits) * (T / 8);
      if (count < high_size)
        packbuf_i_unit_store(T, unit, packbuf_i_unit_load(T, unit) | (uint64_t)high[count] << width);
      count++;
    }
  }
  return count;
}

PACKBUF_I_LANES_SPLIT(vector, 32, )
PACKBUF_I_LANES_SPLIT(vector, 64, )

#endif /* PACKBUF_I_LANES_VECTORS */
