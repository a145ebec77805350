/* core/lanes_x86.c: the kernels of core/lanes.c for x86 processors with AVX2 and AVX-512: instances of the body in
 * lanes_vector.c, and in intrinsics what the vector extension lacks: non-temporal stores, least and largest, tests,
 * and the bytes of mode split.
 * May use: base, lanes.c, lanes_vector.c. Must not know: blocks, their modes and headers, columns, errors. */

#if PACKBUF_I_X86

#define PACKBUF_I_LANES_AVX2 __attribute__((target("avx2,bmi2,popcnt")))
#define PACKBUF_I_LANES_AVX512 __attribute__((target("avx2,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")))
#define PACKBUF_I_LANES_VBMI2 __attribute__((target("avx2,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2")))

/* ---- avx2: 32 bytes ---- */

PACKBUF_I_LANES_UNITS(avx2, 32, PACKBUF_I_LANES_AVX2)

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 void packbuf_i_avx2_put(uint8_t *to, packbuf_i_avx2_v x, int stream) {
  if (stream) _mm256_stream_si256((__m256i *)(void *)to, (__m256i)x);
  else memcpy(to, &x, 32);
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 uint64_t packbuf_i_avx2_bits(unsigned T, packbuf_i_avx2_v x) {
  const __m256i none = ~(__m256i)packbuf_i_avx2_set(T, x);
  if (T == 8) return (uint32_t)~_mm256_movemask_epi8(none);
  if (T == 16) return _pext_u32((uint32_t)~_mm256_movemask_epi8(none), 0x55555555);
  if (T == 32) return ~(uint32_t)_mm256_movemask_ps((__m256)none) & 255;
  return ~(uint32_t)_mm256_movemask_pd((__m256d)none) & 15;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 int packbuf_i_avx2_any(packbuf_i_avx2_v x) {
  return !_mm256_testz_si256((__m256i)x, (__m256i)x);
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 unsigned packbuf_i_avx2_zeros(packbuf_i_avx2_v x) {
  const uint32_t other = ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8((__m256i)x, _mm256_setzero_si256()));
  return other ? packbuf_i_first_set(other) : 32;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 packbuf_i_avx2_v packbuf_i_avx2_least(unsigned T, packbuf_i_avx2_v a,
                                                                                  packbuf_i_avx2_v b) {
  const __m256i x = (__m256i)a, y = (__m256i)b;
  if (T == 8) return (packbuf_i_avx2_v)_mm256_min_epi8(x, y);
  if (T == 16) return (packbuf_i_avx2_v)_mm256_min_epi16(x, y);
  if (T == 32) return (packbuf_i_avx2_v)_mm256_min_epi32(x, y);
  return (packbuf_i_avx2_v)_mm256_blendv_epi8(x, y, _mm256_cmpgt_epi64(x, y));
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 packbuf_i_avx2_v packbuf_i_avx2_most(unsigned T, packbuf_i_avx2_v a,
                                                                                 packbuf_i_avx2_v b) {
  const __m256i x = (__m256i)a, y = (__m256i)b;
  if (T == 8) return (packbuf_i_avx2_v)_mm256_max_epi8(x, y);
  if (T == 16) return (packbuf_i_avx2_v)_mm256_max_epi16(x, y);
  if (T == 32) return (packbuf_i_avx2_v)_mm256_max_epi32(x, y);
  return (packbuf_i_avx2_v)_mm256_blendv_epi8(y, x, _mm256_cmpgt_epi64(x, y));
}

PACKBUF_I_LANES_ROWS(avx2, 32, PACKBUF_I_LANES_AVX2)
PACKBUF_I_LANES_SET(avx2, PACKBUF_I_LANES_AVX2)

/* ---- avx512: 64 bytes ---- */

PACKBUF_I_LANES_UNITS(avx512, 64, PACKBUF_I_LANES_AVX512)

/* Streamed in halves: stores of 64 bytes reach memory at 0.8 of the speed. */
PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 void packbuf_i_avx512_put(uint8_t *to, packbuf_i_avx512_v x, int stream) {
  if (stream) {
    _mm256_stream_si256((__m256i *)(void *)to, _mm512_castsi512_si256((__m512i)x));
    _mm256_stream_si256((__m256i *)(void *)(to + 32), _mm512_extracti64x4_epi64((__m512i)x, 1));
  } else {
    memcpy(to, &x, 64);
  }
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 uint64_t packbuf_i_avx512_bits(unsigned T, packbuf_i_avx512_v x) {
  if (T == 8) return _mm512_test_epi8_mask((__m512i)x, (__m512i)x);
  if (T == 16) return _mm512_test_epi16_mask((__m512i)x, (__m512i)x);
  if (T == 32) return _mm512_test_epi32_mask((__m512i)x, (__m512i)x);
  return _mm512_test_epi64_mask((__m512i)x, (__m512i)x);
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 int packbuf_i_avx512_any(packbuf_i_avx512_v x) {
  return _mm512_test_epi64_mask((__m512i)x, (__m512i)x) != 0;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 unsigned packbuf_i_avx512_zeros(packbuf_i_avx512_v x) {
  const uint64_t other = _mm512_test_epi8_mask((__m512i)x, (__m512i)x);
  return other ? packbuf_i_first_set(other) : 64;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 packbuf_i_avx512_v packbuf_i_avx512_least(unsigned T,
                                                                                        packbuf_i_avx512_v a,
                                                                                        packbuf_i_avx512_v b) {
  const __m512i x = (__m512i)a, y = (__m512i)b;
  if (T == 8) return (packbuf_i_avx512_v)_mm512_min_epi8(x, y);
  if (T == 16) return (packbuf_i_avx512_v)_mm512_min_epi16(x, y);
  if (T == 32) return (packbuf_i_avx512_v)_mm512_min_epi32(x, y);
  return (packbuf_i_avx512_v)_mm512_min_epi64(x, y);
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 packbuf_i_avx512_v packbuf_i_avx512_most(unsigned T, packbuf_i_avx512_v a,
                                                                                       packbuf_i_avx512_v b) {
  const __m512i x = (__m512i)a, y = (__m512i)b;
  if (T == 8) return (packbuf_i_avx512_v)_mm512_max_epi8(x, y);
  if (T == 16) return (packbuf_i_avx512_v)_mm512_max_epi16(x, y);
  if (T == 32) return (packbuf_i_avx512_v)_mm512_max_epi32(x, y);
  return (packbuf_i_avx512_v)_mm512_max_epi64(x, y);
}

PACKBUF_I_LANES_ROWS(avx512, 64, PACKBUF_I_LANES_AVX512)
PACKBUF_I_LANES_SET(avx512, PACKBUF_I_LANES_AVX512)

/* ---- mode split ---- */

/* The bits above `width` of a row's units, a byte each: 32 bytes, for T = 64 the first 16 of them. */
PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 __m256i packbuf_i_avx2_tops(unsigned T, const uint8_t *row,
                                                                        unsigned width) {
  const __m256i columns =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m256i x = _mm256_setzero_si256();
  PACKBUF_I_LANES_EACH(k, 4) {
    const packbuf_i_avx2_v top = packbuf_i_avx2_right(T, packbuf_i_avx2_load(row + k * 32), width);
    x = _mm256_or_si256(x, (__m256i)packbuf_i_avx2_left(T, top, 8 * k));
  }
  if (T == 64) x = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  x = _mm256_shuffle_epi8(x, columns);
  return T == 64 ? x : _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 unsigned packbuf_i_avx2_take(unsigned T, const uint8_t *units,
                                                                         unsigned rows, unsigned width, uint8_t *bitmap,
                                                                         uint8_t *high) {
  const unsigned groups = 128 / T; /* of 8 units, in a row */
  unsigned count = 0;
  for (unsigned r = 0; r < rows; r++, units += PACKBUF_I_ROW, bitmap += 128 / T) {
    const __m256i bytes = packbuf_i_avx2_tops(T, units, width);
    const packbuf_i_avx2_v eights = (packbuf_i_avx2_v)bytes;
    const packbuf_i_avx2_v none = (packbuf_i_avx2_v)_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256());
    const uint32_t bits = ~(uint32_t)_mm256_movemask_epi8((__m256i)none);
    memcpy(bitmap, &bits, 128 / T);
    PACKBUF_I_LANES_EACH(k, groups) {
      const uint64_t front = _pext_u64(eights[k], ~none[k]);
      memcpy(high + count, &front, 8);
      count += (unsigned)__builtin_popcount(bits >> (8 * k) & 255);
    }
  }
  return count;
}

/* The 8 bytes at `at`, of which those beyond the end are 0. */
PACKBUF_I_LANES_INLINE uint64_t packbuf_i_eight(const uint8_t *bytes, unsigned size, unsigned at) {
  uint64_t word = 0;
  if (at + 8 <= size) memcpy(&word, bytes + at, 8);
  else if (at >= size) return 0;
  else if (size < 8) memcpy(&word, bytes + at, size - at);
  else {
    memcpy(&word, bytes + size - 8, 8);
    word >>= 8 * (at + 8 - size);
  }
  return word;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 unsigned packbuf_i_avx2_give(unsigned T, const uint8_t *low, unsigned rows,
                                                                         unsigned width, const uint8_t *bitmap,
                                                                         const uint8_t *high, unsigned high_size,
                                                                         unsigned count, uint8_t *units, int stream) {
  for (unsigned i = 0; i < rows * (128 / T); i++, low += T, units += T) {
    const unsigned bits = bitmap[i];
    const uint64_t places = _pdep_u64(bits, UINT64_MAX / 255) * 255;
    const __m128i bytes = _mm_cvtsi64_si128((int64_t)_pdep_u64(packbuf_i_eight(high, high_size, count), places));
    const packbuf_i_avx2_v wide =
        (packbuf_i_avx2_v)(T == 64 ? _mm256_cvtepu8_epi64(bytes) : _mm256_cvtepu8_epi32(bytes));
    count += (unsigned)__builtin_popcount(bits);
    packbuf_i_avx2_put(units, packbuf_i_avx2_load(low) | packbuf_i_avx2_left(T, wide, width), stream);
    if (T == 64) {
      const packbuf_i_avx2_v more = (packbuf_i_avx2_v)_mm256_cvtepu8_epi64(_mm_srli_si128(bytes, 4));
      packbuf_i_avx2_put(units + 32, packbuf_i_avx2_load(low + 32) | packbuf_i_avx2_left(T, more, width), stream);
    }
  }
  return count;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_VBMI2 unsigned packbuf_i_avx512vbmi2_take(unsigned T, const uint8_t *units,
                                                                                 unsigned rows, unsigned width,
                                                                                 uint8_t *bitmap, uint8_t *high) {
  unsigned count = 0;
  for (unsigned r = 0; r < rows; r++, units += PACKBUF_I_ROW, bitmap += 128 / T) {
    const __m512i a = (__m512i)packbuf_i_avx512_right(T, packbuf_i_avx512_load(units), width);
    const __m512i b = (__m512i)packbuf_i_avx512_right(T, packbuf_i_avx512_load(units + 64), width);
    if (T == 64) {
      const __m128i bytes = _mm_unpacklo_epi64(_mm512_cvtepi64_epi8(a), _mm512_cvtepi64_epi8(b));
      const uint16_t bits = _mm_test_epi8_mask(bytes, bytes);
      _mm_storeu_si128((__m128i *)(void *)(high + count), _mm_maskz_compress_epi8(bits, bytes));
      memcpy(bitmap, &bits, 2);
      count += (unsigned)__builtin_popcount(bits);
    } else {
      const __m256i bytes =
          _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtepi32_epi8(a)), _mm512_cvtepi32_epi8(b), 1);
      const uint32_t bits = _mm256_test_epi8_mask(bytes, bytes);
      _mm256_storeu_si256((__m256i *)(void *)(high + count), _mm256_maskz_compress_epi8(bits, bytes));
      memcpy(bitmap, &bits, 4);
      count += (unsigned)__builtin_popcount(bits);
    }
  }
  return count;
}

/* Keeps the compiler from making x part of the instruction that uses it: an expansion that loads is several times
 * slower, and so is one that zeroes instead of merging with zeros (it waits for what its register held before). */
#define PACKBUF_I_LANES_APART(x) __asm__("" : "+v"(x))

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_VBMI2 unsigned packbuf_i_avx512vbmi2_give(
    unsigned T, const uint8_t *low, unsigned rows, unsigned width, const uint8_t *bitmap, const uint8_t *high,
    unsigned high_size, unsigned count, uint8_t *units, int stream) {
  for (unsigned r = 0; r < rows; r++, low += PACKBUF_I_ROW, units += PACKBUF_I_ROW, bitmap += 128 / T) {
    const unsigned at = count < high_size ? count : high_size, left = high_size - at;
    __m256i none = _mm256_setzero_si256();
    packbuf_i_avx512_v a, b;
    uint32_t bits = 0;
    memcpy(&bits, bitmap, 128 / T);
    PACKBUF_I_LANES_APART(none);
    if (T == 64) {
      __m128i bytes = left >= 16 ? _mm_loadu_si128((const __m128i *)(const void *)(high + at))
                                 : _mm_maskz_loadu_epi8((__mmask16)(((uint32_t)1 << left) - 1), high + at);
      PACKBUF_I_LANES_APART(bytes);
      bytes = _mm_mask_expand_epi8(_mm256_castsi256_si128(none), (__mmask16)bits, bytes);
      a = (packbuf_i_avx512_v)_mm512_cvtepu8_epi64(bytes);
      b = (packbuf_i_avx512_v)_mm512_cvtepu8_epi64(_mm_unpackhi_epi64(bytes, bytes));
    } else {
      __m256i bytes = left >= 32 ? _mm256_loadu_si256((const __m256i *)(const void *)(high + at))
                                 : _mm256_maskz_loadu_epi8(((uint32_t)1 << left) - 1, high + at);
      PACKBUF_I_LANES_APART(bytes);
      bytes = _mm256_mask_expand_epi8(none, bits, bytes);
      a = (packbuf_i_avx512_v)_mm512_cvtepu8_epi32(_mm256_castsi256_si128(bytes));
      b = (packbuf_i_avx512_v)_mm512_cvtepu8_epi32(_mm256_extracti128_si256(bytes, 1));
    }
    count += (unsigned)__builtin_popcount(bits);
    packbuf_i_avx512_put(units, packbuf_i_avx512_load(low) | packbuf_i_avx512_left(T, a, width), stream);
    packbuf_i_avx512_put(units + 64, packbuf_i_avx512_load(low + 64) | packbuf_i_avx512_left(T, b, width), stream);
  }
  return count;
}

/* Split is the packing of the low bits, then a pass that takes the bytes out; join unpacks some rows and gives them
 * their bytes. Both passes find the rows in the first-level cache. codes: the set that packs. */
#define PACKBUF_I_LANES_BYTES(set, codes_of, attributes)                                                               \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_split(                                                  \
      unsigned T, const uint8_t *units, unsigned rows, unsigned width, uint8_t *words, uint8_t *bitmap, uint8_t *high, \
      uint64_t *all, const uint8_t *ahead) {                                                                           \
    const packbuf_i_codes codes = {0, (uint8_t)width, 0, 0};                                                           \
    *all = packbuf_i_##codes_of##_pack_cut(T, units, rows, &codes, words, ahead, 0, 1);                                \
    return packbuf_i_##set##_take(T, units, rows, width, bitmap, high);                                                \
  }                                                                                                                    \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_join(                                                   \
      unsigned T, const uint8_t *words, const uint8_t *bitmap, const uint8_t *high, unsigned high_size,                \
      unsigned first, unsigned rows, unsigned width, uint8_t *units, int stream) {                                     \
    const packbuf_i_codes codes = {0, (uint8_t)width, 0, 0};                                                           \
    const unsigned most = 16;                                                                                          \
    uint8_t low[16 * PACKBUF_I_ROW];                                                                                   \
    unsigned count = 0;                                                                                                \
    const unsigned share =                                                                                             \
        stream && high_size <= PACKBUF_I_ROW * 64 ? (rows * (width + 1) * 128 / T + high_size) * most / 64 : 0;        \
    stream = packbuf_i_##codes_of##_streams(units, stream);                                                            \
    for (unsigned r = 0; r < rows; r += most) {                                                                        \
      const unsigned some = rows - r < most ? rows - r : most, at = first + r;                                         \
      /* the payload that follows this one, taken to be as long, is loaded ahead: it is too short to be foreseen */    \
      for (unsigned i = 0; i < share; i += 64) packbuf_i_load_soon(high, high_size + r / most * share + i);            \
      if (T == 64) packbuf_i_##codes_of##_unpack_64(words, at, some, &codes, low, 0);                                  \
      else packbuf_i_##codes_of##_unpack_32(words, at, some, &codes, low, 0);                                          \
      count = packbuf_i_##set##_give(T, low, some, width, bitmap + at * (128 / T), high, high_size, count,             \
                                     units + r * PACKBUF_I_ROW, stream);                                               \
    }                                                                                                                  \
    return count;                                                                                                      \
  }                                                                                                                    \
  PACKBUF_I_LANES_SPLIT(set, 32, attributes)                                                                           \
  PACKBUF_I_LANES_SPLIT(set, 64, attributes)

PACKBUF_I_LANES_BYTES(avx2, avx2, PACKBUF_I_LANES_AVX2)
PACKBUF_I_LANES_BYTES(avx512vbmi2, avx512, PACKBUF_I_LANES_VBMI2)

#endif /* PACKBUF_I_X86 */
