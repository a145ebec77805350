/* core/lanes_x86.c: the kernels of core/lanes.c for x86 processors with AVX2 and AVX-512: instances of the body in
 * lanes_vector.c and lanes_intrinsics.c, and what only they have.
 * May use: base, lanes.c, lanes_vector.c, lanes_intrinsics.c. Must not know: blocks, their modes and headers, columns,
 * errors. */

#if PACKBUF_I_X86

#define PACKBUF_I_LANES_AVX2 __attribute__((target("avx2,bmi2,popcnt")))
#define PACKBUF_I_LANES_AVX512 __attribute__((target("avx2,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")))
#define PACKBUF_I_LANES_VBMI2 __attribute__((target("avx2,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2")))

/* ---- avx2: 32 bytes ---- */

PACKBUF_I_LANES_UNITS(avx2, 32, PACKBUF_I_LANES_AVX2)
PACKBUF_I_LANES_TESTS(avx2, _mm256, si256, __m256i, _mm256_blendv_epi8, PACKBUF_I_LANES_AVX2)

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 void packbuf_i_avx2_put(uint8_t *to, packbuf_i_avx2_v x, int stream) {
  if (stream) _mm256_stream_si256((__m256i *)(void *)to, (__m256i)x);
  else memcpy(to, &x, 32);
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 int packbuf_i_avx2_any(packbuf_i_avx2_v x) {
  return !_mm256_testz_si256((__m256i)x, (__m256i)x);
}

PACKBUF_I_LANES_ROWS(avx2, 32, PACKBUF_I_LANES_AVX2)
PACKBUF_I_LANES_SET(avx2, PACKBUF_I_LANES_AVX2)

/* ---- avx512: 64 bytes ---- */

PACKBUF_I_LANES_UNITS(avx512, 64, PACKBUF_I_LANES_AVX512)

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 void packbuf_i_avx512_put(uint8_t *to, packbuf_i_avx512_v x, int stream) {
  if (stream) _mm512_stream_si512((__m512i *)(void *)to, (__m512i)x);
  else memcpy(to, &x, 64);
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 int packbuf_i_avx512_any(packbuf_i_avx512_v x) {
  return _mm512_test_epi64_mask((__m512i)x, (__m512i)x) != 0;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX512 unsigned packbuf_i_avx512_zeros(packbuf_i_avx512_v x) {
  const uint64_t other = _mm512_test_epi8_mask((__m512i)x, (__m512i)x);
  return other ? packbuf_i_first_set(other) : 64;
}

PACKBUF_I_LANES_PICK(avx512, least, min, _mm512, __m512i, _mm512_min_epi64(x, y), PACKBUF_I_LANES_AVX512)
PACKBUF_I_LANES_PICK(avx512, most, max, _mm512, __m512i, _mm512_max_epi64(x, y), PACKBUF_I_LANES_AVX512)

PACKBUF_I_LANES_ROWS(avx512, 64, PACKBUF_I_LANES_AVX512)
PACKBUF_I_LANES_SET(avx512, PACKBUF_I_LANES_AVX512)

/* ---- mode split ---- */

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 packbuf_i_avx2_v packbuf_i_avx2_tops(unsigned T, const uint8_t *units,
                                                                                 unsigned width) {
  const __m256i columns =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m256i x = _mm256_setzero_si256();
  PACKBUF_I_LANES_EACH(k, 4) {
    const packbuf_i_avx2_v top = packbuf_i_avx2_right(T, packbuf_i_avx2_load(units + k * 32), width);
    x = _mm256_or_si256(x, (__m256i)packbuf_i_avx2_left(T, top, 8 * k));
  }
  if (T == 64) x = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  x = _mm256_shuffle_epi8(x, columns);
  if (T == 32) x = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  return (packbuf_i_avx2_v)x;
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 uint64_t packbuf_i_avx2_front(packbuf_i_avx2_v bytes, packbuf_i_avx2_v none,
                                                                          unsigned k, unsigned bits) {
  (void)bits;
  return _pext_u64(bytes[k], ~none[k]);
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 packbuf_i_vector_v packbuf_i_avx2_apart(uint64_t front, unsigned bits) {
  const uint64_t places = _pdep_u64(bits, UINT64_MAX / 255) * 255;
  return (packbuf_i_vector_v)_mm_cvtsi64_si128((int64_t)_pdep_u64(front, places));
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 packbuf_i_avx2_v packbuf_i_avx2_wide(unsigned T, packbuf_i_vector_v bytes,
                                                                                 unsigned k) {
  const __m128i some = k ? _mm_srli_si128((__m128i)bytes, 4) : (__m128i)bytes;
  return (packbuf_i_avx2_v)(T == 64 ? _mm256_cvtepu8_epi64(some) : _mm256_cvtepu8_epi32(some));
}

PACKBUF_I_LANES_INLINE PACKBUF_I_LANES_AVX2 unsigned packbuf_i_avx2_ones(unsigned bits) {
  return (unsigned)__builtin_popcount(bits);
}

PACKBUF_I_LANES_BYTES(avx2, 32, _mm256, si256, __m256i, PACKBUF_I_LANES_AVX2)
PACKBUF_I_LANES_SPLITS(avx2, avx2, PACKBUF_I_LANES_AVX2)

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

PACKBUF_I_LANES_SPLITS(avx512vbmi2, avx512, PACKBUF_I_LANES_VBMI2)

#endif /* PACKBUF_I_X86 */
