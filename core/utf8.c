/* core/utf8.c: UTF-8 validation (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF).
 * May use: base, cpu; AVX2 intrinsics where the compiler and the processor have them.
 * Must not know: columns, errors. */

#define PACKBUF_I_UTF8_AVX2 PACKBUF_I_X86

#define PACKBUF_I_UTF8_HIGH 0x8080808080808080u

/* Offset of the first of `size` bytes at or after `at` that may not be ASCII: exact at the end, else in steps of 8. */
static size_t packbuf_i_utf8_skip_ascii(const uint8_t *data, size_t at, size_t size) {
  uint64_t w[4];
  for (; size - at >= 32; at += 32) {
    memcpy(w, data + at, 32);
    if (((w[0] | w[1] | w[2] | w[3]) & PACKBUF_I_UTF8_HIGH) != 0) break;
  }
  for (; size - at >= 8; at += 8) {
    memcpy(w, data + at, 8);
    if ((w[0] & PACKBUF_I_UTF8_HIGH) != 0) break;
  }
  return at;
}

/* Whether there are fewer than 64 bytes, all ASCII. Words overlap at the end, which takes no branch. */
static int packbuf_i_utf8_short_ascii(const uint8_t *data, size_t size) {
  uint64_t found = 0, word;
  uint32_t first, last;
  if (size >= 64) return 0;
  if (size < 4) return size == 0 || ((data[0] | data[size / 2] | data[size - 1]) & 0x80) == 0;
  if (size < 8) {
    memcpy(&first, data, 4);
    memcpy(&last, data + size - 4, 4);
    return ((first | last) & (uint32_t)PACKBUF_I_UTF8_HIGH) == 0;
  }
  for (size_t at = 0; at < size - 8; at += 8) {
    memcpy(&word, data + at, 8);
    found |= word;
  }
  memcpy(&word, data + size - 8, 8);
  return ((found | word) & PACKBUF_I_UTF8_HIGH) == 0;
}

/* Length of the sequence that starts with the non-ASCII byte data[0], 0 when it is not valid within `size` bytes. */
static size_t packbuf_i_utf8_sequence(const uint8_t *data, size_t size) {
  unsigned lead = data[0], low = 0x80, high = 0xBF;
  if (lead < 0xC2 || lead > 0xF4 || size < 2) return 0;
  if (lead == 0xE0) low = 0xA0;  /* shorter form exists */
  if (lead == 0xED) high = 0x9F; /* surrogates */
  if (lead == 0xF0) low = 0x90;  /* shorter form exists */
  if (lead == 0xF4) high = 0x8F; /* past U+10FFFF */
  if (data[1] < low || data[1] > high) return 0;
  if (lead < 0xE0) return 2;
  if (size < 3 || (data[2] & 0xC0) != 0x80) return 0;
  if (lead < 0xF0) return 3;
  if (size < 4 || (data[3] & 0xC0) != 0x80) return 0;
  return 4;
}

/* Plain C, and the definition; `at` is the start of a sequence. */
static size_t packbuf_i_utf8_plain(const uint8_t *data, size_t at, size_t size) {
  while (at < size) {
    if (data[at] < 0x80) {
      at = packbuf_i_utf8_skip_ascii(data, at + 1, size);
      while (at < size && data[at] < 0x80) at++;
    } else {
      size_t length = packbuf_i_utf8_sequence(data + at, size - at);
      if (length == 0) return at;
      at += length;
    }
  }
  return size;
}

#if PACKBUF_I_UTF8_AVX2

/* Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte": three 16-entry lookups (both nibbles of
 * the previous byte, high nibble of this one) yield sets of possible errors; what remains in all three is an error.
 * One bit for every kind of error: */
#define PACKBUF_I_U8_SHORT 1  /* 11...... followed by no continuation */
#define PACKBUF_I_U8_LONG 2   /* 0....... followed by a continuation */
#define PACKBUF_I_U8_OVER3 4  /* 11100000 100..... */
#define PACKBUF_I_U8_LARGE 8  /* 11110100 1001.... and more */
#define PACKBUF_I_U8_SURR 16  /* 11101101 101..... */
#define PACKBUF_I_U8_OVER2 32 /* 1100000. 10...... */
#define PACKBUF_I_U8_OVER4 64 /* 11110000 1000.... ; with F5..FF it also stands for too large */
#define PACKBUF_I_U8_CONT 128 /* continuation after continuation: an error unless a 3- or 4-byte lead demands it */
/* What an error is whatever the low nibble is. */
#define PACKBUF_I_U8_CARRY (PACKBUF_I_U8_SHORT | PACKBUF_I_U8_LONG | PACKBUF_I_U8_CONT)
#define PACKBUF_I_U8_BIG4 (PACKBUF_I_U8_CARRY | PACKBUF_I_U8_LARGE | PACKBUF_I_U8_OVER4)
#define PACKBUF_I_U8_4(kind) PACKBUF_I_U8_##kind, PACKBUF_I_U8_##kind, PACKBUF_I_U8_##kind, PACKBUF_I_U8_##kind
#define PACKBUF_I_UTF8_AVX2_TARGET __attribute__((target("avx2")))
#define PACKBUF_I_UTF8_AVX2_INLINE inline __attribute__((always_inline, unused, target("avx2")))

/* clang-format off */
static const uint8_t packbuf_i_utf8_table[3][16] = {
    /* by the previous byte's high nibble */
    {
        PACKBUF_I_U8_4(LONG), PACKBUF_I_U8_4(LONG),
        PACKBUF_I_U8_4(CONT),
        PACKBUF_I_U8_SHORT | PACKBUF_I_U8_OVER2, PACKBUF_I_U8_SHORT,
        PACKBUF_I_U8_SHORT | PACKBUF_I_U8_OVER3 | PACKBUF_I_U8_SURR,
        PACKBUF_I_U8_SHORT | PACKBUF_I_U8_LARGE | PACKBUF_I_U8_OVER4},
    /* by its low nibble */
    {
        PACKBUF_I_U8_CARRY | PACKBUF_I_U8_OVER2 | PACKBUF_I_U8_OVER3 | PACKBUF_I_U8_OVER4,
        PACKBUF_I_U8_CARRY | PACKBUF_I_U8_OVER2,
        PACKBUF_I_U8_CARRY, PACKBUF_I_U8_CARRY, PACKBUF_I_U8_CARRY | PACKBUF_I_U8_LARGE,
        PACKBUF_I_U8_BIG4, PACKBUF_I_U8_BIG4, PACKBUF_I_U8_BIG4,
        PACKBUF_I_U8_4(BIG4),
        PACKBUF_I_U8_BIG4, PACKBUF_I_U8_BIG4 | PACKBUF_I_U8_SURR, PACKBUF_I_U8_BIG4, PACKBUF_I_U8_BIG4},
    /* by this byte's high nibble */
    {
        PACKBUF_I_U8_4(SHORT), PACKBUF_I_U8_4(SHORT),
        PACKBUF_I_U8_CONT | PACKBUF_I_U8_LONG | PACKBUF_I_U8_OVER2 | PACKBUF_I_U8_OVER3 | PACKBUF_I_U8_OVER4,
        PACKBUF_I_U8_CONT | PACKBUF_I_U8_LONG | PACKBUF_I_U8_OVER2 | PACKBUF_I_U8_OVER3 | PACKBUF_I_U8_LARGE,
        PACKBUF_I_U8_CONT | PACKBUF_I_U8_LONG | PACKBUF_I_U8_OVER2 | PACKBUF_I_U8_SURR | PACKBUF_I_U8_LARGE,
        PACKBUF_I_U8_CONT | PACKBUF_I_U8_LONG | PACKBUF_I_U8_OVER2 | PACKBUF_I_U8_SURR | PACKBUF_I_U8_LARGE,
        PACKBUF_I_U8_4(SHORT)},
};
/* clang-format on */

static PACKBUF_I_UTF8_AVX2_INLINE __m256i packbuf_i_utf8_lookup(int table, __m256i nibbles) {
  __m128i entries = _mm_loadu_si128((const __m128i *)(const void *)packbuf_i_utf8_table[table]);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), nibbles);
}

/* Errors of the 32 bytes `now`, of which `prev1` is the sequence one byte earlier, by the lookups alone. */
static PACKBUF_I_UTF8_AVX2_INLINE __m256i packbuf_i_utf8_special(__m256i now, __m256i prev1) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i high = packbuf_i_utf8_lookup(0, _mm256_and_si256(_mm256_srli_epi16(prev1, 4), nibble));
  __m256i low = packbuf_i_utf8_lookup(1, _mm256_and_si256(prev1, nibble));
  __m256i here = packbuf_i_utf8_lookup(2, _mm256_and_si256(_mm256_srli_epi16(now, 4), nibble));
  return _mm256_and_si256(_mm256_and_si256(high, low), here);
}

/* As above, with the rule that byte two and three of long sequences are continuations; `before` are the 32 bytes
 * ahead. */
static PACKBUF_I_UTF8_AVX2_INLINE __m256i packbuf_i_utf8_errors(__m256i now, __m256i before) {
  __m256i seam = _mm256_permute2x128_si256(before, now, 0x21);
  __m256i special = packbuf_i_utf8_special(now, _mm256_alignr_epi8(now, seam, 15));
  /* bit 7 where the byte two back is at least E0, or the byte three back at least F0 */
  __m256i third = _mm256_subs_epu8(_mm256_alignr_epi8(now, seam, 14), _mm256_set1_epi8(0xE0 - 0x80));
  __m256i fourth = _mm256_subs_epu8(_mm256_alignr_epi8(now, seam, 13), _mm256_set1_epi8(0xF0 - 0x80));
  __m256i demanded = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8(-128));
  return _mm256_xor_si256(demanded, special);
}

static PACKBUF_I_UTF8_AVX2_INLINE __m256i packbuf_i_utf8_load(const uint8_t *data) {
  return _mm256_loadu_si256((const __m256i *)(const void *)data);
}

static PACKBUF_I_UTF8_AVX2_INLINE size_t packbuf_i_utf8_avx2_ascii(const uint8_t *data, size_t at, size_t size) {
  for (; size - at >= 128; at += 128) {
    __m256i low = _mm256_or_si256(packbuf_i_utf8_load(data + at), packbuf_i_utf8_load(data + at + 32));
    __m256i high = _mm256_or_si256(packbuf_i_utf8_load(data + at + 64), packbuf_i_utf8_load(data + at + 96));
    if (_mm256_movemask_epi8(_mm256_or_si256(low, high)) != 0) break;
  }
  return at;
}

static PACKBUF_I_UTF8_AVX2_INLINE int packbuf_i_utf8_avx2_ascii64(const uint8_t *data) {
  return _mm256_movemask_epi8(_mm256_or_si256(packbuf_i_utf8_load(data), packbuf_i_utf8_load(data + 32))) == 0;
}

/* `size` when all is valid, else an offset at or before the first invalid sequence, at the start of a sequence. */
static PACKBUF_I_UTF8_AVX2_TARGET size_t packbuf_i_utf8_avx2_scan(const uint8_t *data, size_t size) {
  uint8_t tail[64];
  __m256i before = _mm256_setzero_si256(), a, b, errors;
  size_t at = 0;
  for (;;) {
    if (size - at >= 64) {
      a = packbuf_i_utf8_load(data + at);
      b = packbuf_i_utf8_load(data + at + 32);
    } else if (at > 0 && packbuf_i_utf8_avx2_ascii64(data + size - 64)) {
      return size; /* after ASCII nothing waits for continuations */
    } else { /* the zeros behind the end also expose a sequence that is cut off */
      memset(tail, 0, sizeof tail);
      memcpy(tail, data + at, size - at);
      a = packbuf_i_utf8_load(tail);
      b = packbuf_i_utf8_load(tail + 32);
    }
    if (_mm256_movemask_epi8(_mm256_or_si256(a, b)) == 0) {
      /* ASCII: only the last three bytes ahead may still wait for continuations */
      errors = _mm256_subs_epu8(
          before, _mm256_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                   -1, -1, -1, -1, -1, -1, -1, -1, (char)0xEF, (char)0xDF, (char)0xBF));
    } else {
      errors = _mm256_or_si256(packbuf_i_utf8_errors(a, before), packbuf_i_utf8_errors(b, a));
    }
    if (!_mm256_testz_si256(errors, errors)) break;
    if (size - at < 64) return size;
    before = b;
    at += 64;
    if (_mm256_movemask_epi8(before) == 0) at = packbuf_i_utf8_avx2_ascii(data, at, size);
  }
  /* everything before `at` is a beginning of valid text: its last sequence starts at most three bytes back */
  if (at > 0) {
    at--;
    while (at > 0 && (data[at] & 0xC0) == 0x80) at--;
  }
  return at;
}

#endif /* PACKBUF_I_UTF8_AVX2 */

/* `size` when all of it is valid UTF-8, else the offset of the first byte of the first invalid sequence. */
static size_t packbuf_i_utf8_valid(const uint8_t *data, size_t size) {
  size_t at = 0;
  if (packbuf_i_utf8_short_ascii(data, size)) return size;
#if PACKBUF_I_UTF8_AVX2
  if (size >= 64 && PACKBUF_I_CPU(PACKBUF_I_CPU_AVX2)) {
    at = PACKBUF_I_CHOSEN(utf8, packbuf_i_utf8_avx2_scan)(data, size);
    if (at == size) return size;
  }
#endif
  return packbuf_i_utf8_plain(data, at, size);
}
