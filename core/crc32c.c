/* core/crc32c.c: CRC-32C (Castagnoli): one checksum kernel per instruction set, and the fused "copy and checksum" of
 * raw columns. Values are finalised: crc(0, "123456789", 9) == 0xE3069283 and crc(crc(0, a), b) == crc(0, ab).
 * May use: base, cpu; x86 intrinsics or the ARM CRC instructions where the compiler has them. Must not know: columns,
 * errors. */

#define PACKBUF_I_CRC_X86 PACKBUF_I_X86
#define PACKBUF_I_CRC_ARM PACKBUF_I_CPU_ARM

/* crc: checksum only. copy_crc: copy src to dst (no overlap) and checksum it in one pass. stream 0: ordinary stores;
 * 1: non-temporal stores allowed, fenced before the return; 2: the same without the fence, for many small rows (a fence
 * a row halves the speed): the caller ends the batch with packbuf_i_crc_fence() before anyone else reads it.
 * ahead: what will be copied next, or NULL; its first lines are loaded while the last ones of src are copied (rows lie
 * anywhere, and the processor cannot guess where). */
typedef struct packbuf_i_crc_kernel {
  const char *name;
  uint32_t (*crc)(uint32_t crc, const void *data, size_t size);
  uint32_t (*copy_crc)(uint32_t crc, void *dst, const void *src, size_t size, int stream, const void *ahead);
  unsigned needs; /* of the processor */
} packbuf_i_crc_kernel;

/* Slicing (Kounavis and Berry) by sixteen nibbles: 1 KiB of table for eight bytes a step. Row t is what nibble t of a
 * little-endian 64-bit word adds to the remainder; by linearity four values (its single bits) give all sixteen. Bit i
 * of the word stands for x^(95-i) mod P. The last two rows also serve byte steps. */
/* clang-format off */
#define PACKBUF_I_CRC_ROW4(a, b, c, v) \
  (v), (v) ^ (a), (v) ^ (b), (v) ^ (a) ^ (b), (v) ^ (c), (v) ^ (a) ^ (c), (v) ^ (b) ^ (c), (v) ^ (a) ^ (b) ^ (c)
#define PACKBUF_I_CRC_ROW(a, b, c, d) {PACKBUF_I_CRC_ROW4(a, b, c, 0u), PACKBUF_I_CRC_ROW4(a, b, c, d)}
/* clang-format on */
static const uint32_t packbuf_i_crc_table[16][16] = {
    PACKBUF_I_CRC_ROW(0x493C7D27u, 0x9278FA4Eu, 0x211D826Du, 0x423B04DAu),
    PACKBUF_I_CRC_ROW(0x847609B4u, 0x0D006599u, 0x1A00CB32u, 0x34019664u),
    PACKBUF_I_CRC_ROW(0x68032CC8u, 0xD0065990u, 0xA5E0C5D1u, 0x4E2DFD53u),
    PACKBUF_I_CRC_ROW(0x9C5BFAA6u, 0x3D5B83BDu, 0x7AB7077Au, 0xF56E0EF4u),
    PACKBUF_I_CRC_ROW(0xEF306B19u, 0xDB8CA0C3u, 0xB2F53777u, 0x6006181Fu),
    PACKBUF_I_CRC_ROW(0xC00C303Eu, 0x85F4168Du, 0x0E045BEBu, 0x1C08B7D6u),
    PACKBUF_I_CRC_ROW(0x38116FACu, 0x7022DF58u, 0xE045BEB0u, 0xC5670B91u),
    PACKBUF_I_CRC_ROW(0x8F2261D3u, 0x1BA8B557u, 0x37516AAEu, 0x6EA2D55Cu),
    PACKBUF_I_CRC_ROW(0xDD45AAB8u, 0xBF672381u, 0x7B2231F3u, 0xF64463E6u),
    PACKBUF_I_CRC_ROW(0xE964B13Du, 0xD725148Bu, 0xABA65FE7u, 0x52A0C93Fu),
    PACKBUF_I_CRC_ROW(0xA541927Eu, 0x4F6F520Du, 0x9EDEA41Au, 0x38513EC5u),
    PACKBUF_I_CRC_ROW(0x70A27D8Au, 0xE144FB14u, 0xC76580D9u, 0x8B277743u),
    PACKBUF_I_CRC_ROW(0x13A29877u, 0x274530EEu, 0x4E8A61DCu, 0x9D14C3B8u),
    PACKBUF_I_CRC_ROW(0x3FC5F181u, 0x7F8BE302u, 0xFF17C604u, 0xFBC3FAF9u),
    PACKBUF_I_CRC_ROW(0xF26B8303u, 0xE13B70F7u, 0xC79A971Fu, 0x8AD958CFu),
    PACKBUF_I_CRC_ROW(0x105EC76Fu, 0x20BD8EDEu, 0x417B1DBCu, 0x82F63B78u),
};

#define PACKBUF_I_CRC_NIBBLE(word, shift, row) packbuf_i_crc_table[row][((word) >> (shift)) & 15u]
#define PACKBUF_I_CRC_WORD(word, row)                                                      \
  (PACKBUF_I_CRC_NIBBLE(word, 0, row) ^ PACKBUF_I_CRC_NIBBLE(word, 4, (row) + 1) ^         \
   PACKBUF_I_CRC_NIBBLE(word, 8, (row) + 2) ^ PACKBUF_I_CRC_NIBBLE(word, 12, (row) + 3) ^  \
   PACKBUF_I_CRC_NIBBLE(word, 16, (row) + 4) ^ PACKBUF_I_CRC_NIBBLE(word, 20, (row) + 5) ^ \
   PACKBUF_I_CRC_NIBBLE(word, 24, (row) + 6) ^ PACKBUF_I_CRC_NIBBLE(word, 28, (row) + 7))

static uint32_t packbuf_i_crc_plain(uint32_t crc, const void *data, size_t size) {
  const unsigned char *p = (const unsigned char *)data;
  crc = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint32_t high = packbuf_i_load32(p + 4);
    uint32_t rest = PACKBUF_I_CRC_WORD(high, 8); /* does not wait for the previous step */
    crc ^= packbuf_i_load32(p);
    crc = PACKBUF_I_CRC_WORD(crc, 0) ^ rest;
  }
  for (; size > 0; size--, p++) {
    crc ^= *p;
    crc = (crc >> 8) ^ PACKBUF_I_CRC_NIBBLE(crc, 0, 14) ^ PACKBUF_I_CRC_NIBBLE(crc, 4, 15);
  }
  return ~crc;
}

/* Copies piece by piece so that the checksum reads from the first-level cache. */
static uint32_t packbuf_i_crc_copy_pieces(uint32_t (*kernel)(uint32_t crc, const void *data, size_t size), uint32_t crc,
                                          void *dst, const void *src, size_t size) {
  unsigned char *to = (unsigned char *)dst;
  const unsigned char *from = (const unsigned char *)src;
  while (size > 0) {
    size_t piece = size < 4096 ? size : 4096;
    crc = kernel(crc, from, piece);
    memcpy(to, from, piece);
    to += piece;
    from += piece;
    size -= piece;
  }
  return crc;
}

static uint32_t packbuf_i_crc_plain_copy(uint32_t crc, void *dst, const void *src, size_t size, int stream,
                                         const void *ahead) {
  (void)stream;
  (void)ahead;
  return packbuf_i_crc_copy_pieces(packbuf_i_crc_plain, crc, dst, src, size);
}

#if PACKBUF_I_CRC_X86

#define PACKBUF_I_CRC_SSE42 __attribute__((target("sse4.2,pclmul")))
#define PACKBUF_I_CRC_SSE42_INLINE inline __attribute__((always_inline, unused, target("sse4.2,pclmul")))
#define PACKBUF_I_CRC_AVX512 __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))
#define PACKBUF_I_CRC_AVX512_INLINE \
  inline __attribute__((always_inline, unused, target("sse4.2,pclmul,avx512f,vpclmulqdq")))

#ifndef PACKBUF_I_CRC_AHEAD
#define PACKBUF_I_CRC_AHEAD 4096 /* bytes of software prefetch: a page, where the hardware's own prefetch stops */
#endif

enum { PACKBUF_I_CRC_ONLY, PACKBUF_I_CRC_COPY, PACKBUF_I_CRC_STREAM };

static PACKBUF_I_CRC_SSE42_INLINE uint64_t packbuf_i_crc_step8(uint64_t state, const unsigned char *p) {
  uint64_t word;
  memcpy(&word, p, 8);
  return (uint64_t)_mm_crc32_u64(state, word);
}

/* One stream, not finalised; copies as it goes unless dst is NULL. Heads and tails only. */
static PACKBUF_I_CRC_SSE42 uint32_t packbuf_i_crc_sse42_short(uint32_t state, unsigned char *dst,
                                                              const unsigned char *src, size_t size) {
  uint64_t wide = state;
  size_t at = 0;
  if (size == 0) return state;
  if (dst != NULL) memcpy(dst, src, size);
  for (; at + 8 <= size; at += 8) wide = packbuf_i_crc_step8(wide, src + at);
  state = (uint32_t)wide;
  if (size - at >= 4) {
    uint32_t word;
    memcpy(&word, src + at, 4);
    state = _mm_crc32_u32(state, word);
    at += 4;
  }
  for (; at < size; at++) state = _mm_crc32_u8(state, src[at]);
  return state;
}

static PACKBUF_I_CRC_SSE42_INLINE void packbuf_i_crc_store64(unsigned char *dst, const unsigned char *src, int mode) {
  int i;
  if (mode == PACKBUF_I_CRC_ONLY) return;
  for (i = 0; i < 64; i += 16) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(src + i));
    if (mode == PACKBUF_I_CRC_STREAM) _mm_stream_si128((__m128i *)(void *)(dst + i), v);
    else _mm_storeu_si128((__m128i *)(void *)(dst + i), v);
  }
}

/* The crc32 instruction takes three cycles but starts every cycle: three neighbouring parts run side by side and are
 * joined by carry-less products (Gopal et al., "Fast CRC computation for iSCSI polynomial"). shift2 and shift1 are
 * x^(16*part-33) and x^(8*part-33) mod P, bit-reversed: the product's own shift and the final crc32 supply x^33. */
static PACKBUF_I_CRC_SSE42_INLINE uint32_t packbuf_i_crc_sse42_three(uint32_t state, unsigned char *dst,
                                                                     const unsigned char *src, size_t part,
                                                                     uint32_t shift2, uint32_t shift1, int more,
                                                                     int mode) {
  uint64_t a = state, b = 0, c = 0, product;
  size_t at, i;
  for (at = 0; at < part; at += 64) {
    const unsigned char *p = src + at;
    if (more) {
      _mm_prefetch((const char *)(p + 3 * part), _MM_HINT_T0);
      _mm_prefetch((const char *)(p + 4 * part), _MM_HINT_T0);
      _mm_prefetch((const char *)(p + 5 * part), _MM_HINT_T0);
    }
    for (i = 0; i < 64; i += 8) {
      a = packbuf_i_crc_step8(a, p + i);
      b = packbuf_i_crc_step8(b, p + part + i);
      c = packbuf_i_crc_step8(c, p + 2 * part + i);
    }
    if (mode != PACKBUF_I_CRC_ONLY) {
      packbuf_i_crc_store64(dst + at, p, mode);
      packbuf_i_crc_store64(dst + at + part, p + part, mode);
      packbuf_i_crc_store64(dst + at + 2 * part, p + 2 * part, mode);
    }
  }
  product = (uint64_t)_mm_cvtsi128_si64(
      _mm_xor_si128(_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)a), _mm_cvtsi64_si128((long long)shift2), 0),
                    _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)b), _mm_cvtsi64_si128((long long)shift1), 0)));
  return (uint32_t)(c ^ (uint64_t)_mm_crc32_u64(0, product));
}

/* Not finalised. In stream mode dst is 64-byte aligned. */
static PACKBUF_I_CRC_SSE42_INLINE uint32_t packbuf_i_crc_sse42_body(uint32_t state, unsigned char *dst,
                                                                    const unsigned char *src, size_t size, int mode) {
  size_t at = 0, step;
  for (step = 3 * 1024; size - at >= step; at += step)
    state = packbuf_i_crc_sse42_three(state, mode ? dst + at : dst, src + at, 1024, 0xA51B6135u, 0x170076FAu,
                                      size - at >= 2 * step, mode);
  for (step = 3 * 128; size - at >= step; at += step)
    state = packbuf_i_crc_sse42_three(state, mode ? dst + at : dst, src + at, 128, 0xB9E02B86u, 0x0D3B6092u,
                                      size - at >= 2 * step, mode);
  return packbuf_i_crc_sse42_short(state, mode ? dst + at : NULL, src + at, size - at);
}

static PACKBUF_I_CRC_SSE42 uint32_t packbuf_i_crc_sse42(uint32_t crc, const void *data, size_t size) {
  if (size == 0) return crc;
  return ~packbuf_i_crc_sse42_body(~crc, NULL, (const unsigned char *)data, size, PACKBUF_I_CRC_ONLY);
}

/* Bytes before the first 64-byte boundary of dst; whole lines only may be streamed. */
static size_t packbuf_i_crc_head(const unsigned char *dst, size_t size) {
  size_t head = (size_t)(0u - (uintptr_t)dst) & 63u;
  return head < size ? head : size;
}

static PACKBUF_I_CRC_SSE42 uint32_t packbuf_i_crc_sse42_copy(uint32_t crc, void *dst, const void *src, size_t size,
                                                             int stream, const void *ahead) {
  unsigned char *to = (unsigned char *)dst;
  const unsigned char *from = (const unsigned char *)src;
  uint32_t state = ~crc;
  (void)ahead;
  if (size == 0) return crc;
  if (!stream || size < 1024) return ~packbuf_i_crc_sse42_body(state, to, from, size, PACKBUF_I_CRC_COPY);
  {
    size_t head = packbuf_i_crc_head(to, size);
    state = packbuf_i_crc_sse42_short(state, to, from, head);
    state = packbuf_i_crc_sse42_body(state, to + head, from + head, size - head, PACKBUF_I_CRC_STREAM);
  }
  if (stream == 1) _mm_sfence();
  return ~state;
}

/* Folding (Gopal et al., "Fast CRC computation using PCLMULQDQ"): in every 128-bit lane the low half is the earlier,
 * higher-degree one. Moving a lane on by D bits multiplies the low half by x^(D+63) and the high half by x^(D-1), mod
 * P, bit-reversed in the upper 32 bits; the product of reversed operands supplies the missing x. */
#define PACKBUF_I_CRC_FOLD_LOW(v) ((long long)((uint64_t)(v) << 32))
#define PACKBUF_I_CRC_FOLD(low, high) _mm_set_epi64x(PACKBUF_I_CRC_FOLD_LOW(high), PACKBUF_I_CRC_FOLD_LOW(low))
#define PACKBUF_I_CRC_BY128 PACKBUF_I_CRC_FOLD(0x3743F7BDu, 0x3171D430u)
#define PACKBUF_I_CRC_BY256 PACKBUF_I_CRC_FOLD(0x33CCBBBCu, 0xA2158B34u)
#define PACKBUF_I_CRC_BY384 PACKBUF_I_CRC_FOLD(0xA46EF4AAu, 0x6051243Fu)
#define PACKBUF_I_CRC_BY512 PACKBUF_I_CRC_FOLD(0x1C19243Bu, 0x75BBA45Bu)
#define PACKBUF_I_CRC_BY2048 PACKBUF_I_CRC_FOLD(0xE9A5D8BEu, 0x1426A815u)

static PACKBUF_I_CRC_AVX512_INLINE __m512i packbuf_i_crc_fold(__m512i value, __m512i factor, __m512i next) {
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(value, factor, 0x00),
                                   _mm512_clmulepi64_epi128(value, factor, 0x11), next, 0x96);
}

static PACKBUF_I_CRC_AVX512_INLINE __m512i packbuf_i_crc_move64(unsigned char *dst, const unsigned char *src, size_t at,
                                                                int mode) {
  __m512i v = _mm512_loadu_si512((const void *)(src + at));
  if (mode == PACKBUF_I_CRC_STREAM) _mm512_stream_si512((__m512i *)(void *)(dst + at), v);
  if (mode == PACKBUF_I_CRC_COPY) _mm512_storeu_si512((void *)(dst + at), v);
  return v;
}

/* The remainder of 64 folded bytes: the four lanes are moved to the last one, whose 16 bytes the crc32 instruction
 * ends. */
static PACKBUF_I_CRC_AVX512_INLINE uint32_t packbuf_i_crc_fold_end(__m512i v) {
  __m512i by = _mm512_inserti32x4(
      _mm512_inserti32x4(_mm512_inserti32x4(_mm512_setzero_si512(), PACKBUF_I_CRC_BY384, 0), PACKBUF_I_CRC_BY256, 1),
      PACKBUF_I_CRC_BY128, 2);
  __m512i moved = packbuf_i_crc_fold(v, by, _mm512_setzero_si512());
  __m128i sum = _mm_xor_si128(_mm_xor_si128(_mm512_maskz_extracti32x4_epi32((__mmask8)0xF, moved, 0),
                                            _mm512_maskz_extracti32x4_epi32((__mmask8)0xF, moved, 1)),
                              _mm_xor_si128(_mm512_maskz_extracti32x4_epi32((__mmask8)0xF, moved, 2),
                                            _mm512_maskz_extracti32x4_epi32((__mmask8)0xF, v, 3)));
  uint64_t state = (uint64_t)_mm_crc32_u64(0, (unsigned long long)_mm_cvtsi128_si64(sum));
  return (uint32_t)_mm_crc32_u64(state, (unsigned long long)_mm_extract_epi64(sum, 1));
}

/* Not finalised; size >= 256; returns the state after the last whole 64 bytes. In stream mode dst is 64-byte
 * aligned. */
static PACKBUF_I_CRC_AVX512_INLINE uint32_t packbuf_i_crc_vpclmul_body(uint32_t state, unsigned char *dst,
                                                                       const unsigned char *src, size_t size, int mode,
                                                                       const unsigned char *ahead) {
  __m512i by = _mm512_maskz_broadcast_i32x4((__mmask16)0xFFFF, PACKBUF_I_CRC_BY2048);
  __m512i a, b, c, d;
  size_t distance = size < PACKBUF_I_CRC_AHEAD ? size : PACKBUF_I_CRC_AHEAD;
  a = _mm512_xor_si512(packbuf_i_crc_move64(dst, src, 0, mode), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
  b = packbuf_i_crc_move64(dst, src, 64, mode);
  c = packbuf_i_crc_move64(dst, src, 128, mode);
  d = packbuf_i_crc_move64(dst, src, 192, mode);
  for (;;) {
    src += 256;
    if (mode != PACKBUF_I_CRC_ONLY) dst += 256;
    size -= 256;
    if (size < 256) break;
    if (size >= PACKBUF_I_CRC_AHEAD + 256 || ahead) {
      const unsigned char *soon = size >= PACKBUF_I_CRC_AHEAD + 256
                                      ? src + PACKBUF_I_CRC_AHEAD
                                      : ahead + (distance - (size < distance ? size : distance));
      _mm_prefetch((const char *)soon, _MM_HINT_T0);
      _mm_prefetch((const char *)(soon + 64), _MM_HINT_T0);
      _mm_prefetch((const char *)(soon + 128), _MM_HINT_T0);
      _mm_prefetch((const char *)(soon + 192), _MM_HINT_T0);
    }
    a = packbuf_i_crc_fold(a, by, packbuf_i_crc_move64(dst, src, 0, mode));
    b = packbuf_i_crc_fold(b, by, packbuf_i_crc_move64(dst, src, 64, mode));
    c = packbuf_i_crc_fold(c, by, packbuf_i_crc_move64(dst, src, 128, mode));
    d = packbuf_i_crc_fold(d, by, packbuf_i_crc_move64(dst, src, 192, mode));
  }
  by = _mm512_maskz_broadcast_i32x4((__mmask16)0xFFFF, PACKBUF_I_CRC_BY512);
  d = packbuf_i_crc_fold(packbuf_i_crc_fold(packbuf_i_crc_fold(a, by, b), by, c), by, d);
  for (; size >= 64; size -= 64) {
    d = packbuf_i_crc_fold(d, by, packbuf_i_crc_move64(dst, src, 0, mode));
    src += 64;
    if (mode != PACKBUF_I_CRC_ONLY) dst += 64;
  }
  return packbuf_i_crc_fold_end(d);
}

static PACKBUF_I_CRC_AVX512 uint32_t packbuf_i_crc_vpclmul(uint32_t crc, const void *data, size_t size) {
  const unsigned char *p = (const unsigned char *)data;
  uint32_t state = ~crc;
  if (size >= 256) {
    state = packbuf_i_crc_vpclmul_body(state, NULL, p, size, PACKBUF_I_CRC_ONLY, NULL);
    p += size & ~(size_t)63;
    size &= 63;
  }
  return ~packbuf_i_crc_sse42_short(state, NULL, p, size);
}

static PACKBUF_I_CRC_AVX512 uint32_t packbuf_i_crc_vpclmul_copy(uint32_t crc, void *dst, const void *src, size_t size,
                                                                int stream, const void *ahead) {
  unsigned char *to = (unsigned char *)dst;
  const unsigned char *from = (const unsigned char *)src;
  uint32_t state = ~crc;
  size_t done = 0;
  if (size == 0) return crc;
  if (stream && size >= 1024) {
    size_t head = packbuf_i_crc_head(to, size);
    state = packbuf_i_crc_sse42_short(state, to, from, head);
    state = packbuf_i_crc_vpclmul_body(state, to + head, from + head, size - head, PACKBUF_I_CRC_STREAM,
                                       (const unsigned char *)ahead);
    done = head + ((size - head) & ~(size_t)63);
    if (stream == 1) _mm_sfence();
  } else if (size >= 256) {
    state = packbuf_i_crc_vpclmul_body(state, to, from, size, PACKBUF_I_CRC_COPY, (const unsigned char *)ahead);
    done = size & ~(size_t)63;
  }
  return ~packbuf_i_crc_sse42_short(state, to + done, from + done, size - done);
}

#endif /* PACKBUF_I_CRC_X86 */

#if PACKBUF_I_CRC_ARM

#if defined(__clang__)
#define PACKBUF_I_CRC_ARM_TARGET __attribute__((target("crc")))
#define PACKBUF_I_CRC_ARM_8 __builtin_arm_crc32cd
#define PACKBUF_I_CRC_ARM_1 __builtin_arm_crc32cb
#else
#define PACKBUF_I_CRC_ARM_TARGET __attribute__((target("+crc")))
#define PACKBUF_I_CRC_ARM_8 __builtin_aarch64_crc32cx
#define PACKBUF_I_CRC_ARM_1 __builtin_aarch64_crc32cb
#endif

static PACKBUF_I_CRC_ARM_TARGET uint32_t packbuf_i_crc_arm(uint32_t crc, const void *data, size_t size) {
  const unsigned char *p = (const unsigned char *)data;
  crc = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    crc = PACKBUF_I_CRC_ARM_8(crc, word);
  }
  for (; size > 0; size--, p++) crc = PACKBUF_I_CRC_ARM_1(crc, *p);
  return ~crc;
}

static uint32_t packbuf_i_crc_arm_copy(uint32_t crc, void *dst, const void *src, size_t size, int stream,
                                       const void *ahead) {
  (void)stream;
  (void)ahead;
  return packbuf_i_crc_copy_pieces(packbuf_i_crc_arm, crc, dst, src, size);
}

#endif /* PACKBUF_I_CRC_ARM */

/* Orders the non-temporal stores of earlier copy_crc calls with stream == 2 before all later stores. */
static void packbuf_i_crc_fence(void) {
#if PACKBUF_I_CRC_X86
  _mm_sfence();
#endif
}

/* Slowest first; every entry needs the features of those before it. */
static const packbuf_i_crc_kernel packbuf_i_crc_kernels[] = {
    {"plain", packbuf_i_crc_plain, packbuf_i_crc_plain_copy, 0},
#if PACKBUF_I_CRC_X86
    {"sse42", packbuf_i_crc_sse42, packbuf_i_crc_sse42_copy, PACKBUF_I_CPU_SSE42 | PACKBUF_I_CPU_PCLMUL},
    {"vpclmul", packbuf_i_crc_vpclmul, packbuf_i_crc_vpclmul_copy,
     PACKBUF_I_CPU_SSE42 | PACKBUF_I_CPU_PCLMUL | PACKBUF_I_CPU_AVX512F | PACKBUF_I_CPU_VPCLMULQDQ},
#endif
#if PACKBUF_I_CRC_ARM
    {"armcrc", packbuf_i_crc_arm, packbuf_i_crc_arm_copy, PACKBUF_I_CPU_ARM_CRC},
#endif
};
enum { PACKBUF_I_CRC_KERNELS = sizeof packbuf_i_crc_kernels / sizeof packbuf_i_crc_kernels[0] };

/* The number of the best kernel for a processor that has these features. */
static inline unsigned packbuf_i_crc_choose(unsigned has) {
  unsigned index = PACKBUF_I_CRC_KERNELS - 1;
  while (packbuf_i_crc_kernels[index].needs & ~has) index--;
  return index;
}

static unsigned packbuf_i_crc_last(void) {
  return packbuf_i_crc_choose(PACKBUF_I_CPU(packbuf_i_crc_kernels[PACKBUF_I_CRC_KERNELS - 1].needs));
}

/* Kernel number `index`, or NULL past the last one that this processor can run. 0 is always "plain". */
static const packbuf_i_crc_kernel *packbuf_i_crc_kernel_at(unsigned index) {
  return index <= packbuf_i_crc_last() ? &packbuf_i_crc_kernels[index] : NULL;
}

static const packbuf_i_crc_kernel *packbuf_i_crc_kernel_best(void) {
  return PACKBUF_I_CHOSEN(crc, &packbuf_i_crc_kernels[packbuf_i_crc_last()]);
}

PACKBUF_API uint32_t packbuf_checksum(uint32_t crc, const void *data, size_t size) {
  return packbuf_i_crc_kernel_best()->crc(crc, data, size);
}

PACKBUF_API const char *packbuf_checksum_kernel(void) { return packbuf_i_crc_kernel_best()->name; }
