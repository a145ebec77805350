/* core/lanes_intrinsics.c: what the vector extension lacks, in the intrinsics of x86, as one text for vectors of 16 or
 * 32 bytes: tests, least and largest, and the bytes of mode split. Its instances are native ones (lanes_x86.c) and
 * those through SIMDe (lanes_simde.c); mm, si and type name the intrinsics and their vector: _mm256, si256, __m256i, or
 * simde_mm, si128, simde__m128i.
 * May use: base, lanes.c, lanes_vector.c. Must not know: blocks, their modes and headers, columns, errors. */

#if PACKBUF_I_LANES_VECTORS

/* The lesser or larger of signed units: op is min or max, pick64 what does it to the 64-bit ones of x and y. */
#define PACKBUF_I_LANES_PICK(set, name, op, mm, type, pick64, attributes)                                           \
  PACKBUF_I_LANES_INLINE attributes packbuf_i_##set##_v packbuf_i_##set##_##name(unsigned T, packbuf_i_##set##_v a, \
                                                                                 packbuf_i_##set##_v b) {           \
    typedef packbuf_i_##set##_v V;                                                                                  \
    const type x = (type)a, y = (type)b;                                                                            \
    if (T == 8) return (V)mm##_##op##_epi8(x, y);                                                                   \
    if (T == 16) return (V)mm##_##op##_epi16(x, y);                                                                 \
    if (T == 32) return (V)mm##_##op##_epi32(x, y);                                                                 \
    return (V)(pick64);                                                                                             \
  }

#define PACKBUF_I_LANES_TESTS(set, mm, si, type, blend, attributes)                                               \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_zeros(packbuf_i_##set##_v x) {                     \
    const type none = mm##_cmpeq_epi8((type)x, mm##_setzero_##si());                                              \
    return packbuf_i_first_set(~(uint64_t)(uint32_t)mm##_movemask_epi8(none)); /* the bit past the last is set */ \
  }                                                                                                               \
  PACKBUF_I_LANES_PICK(set, least, min, mm, type, blend(x, y, mm##_cmpgt_epi64(x, y)), attributes)                \
  PACKBUF_I_LANES_PICK(set, most, max, mm, type, blend(y, x, mm##_cmpgt_epi64(x, y)), attributes)

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

/* How the bytes above the low bits are taken out and given back, eight at a time. A set has
 * _tops: the bits above `width` of some units, a byte each: of 16 units for T = 64, else of as many as a vector has
 *   bytes;
 * _front: of the k-th eight of `bytes`, those that `none` (0 or 255) and `bits` say are not 0, moved to the front;
 * _apart: the bytes at the front where `bits` has ones, 0 elsewhere;
 * _wide: the k-th vector of units that such bytes make;
 * _ones: how many of eight bits are set. */
#define PACKBUF_I_LANES_BYTES(set, BYTES, mm, si, type, attributes)                                                   \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_take(unsigned T, const uint8_t *units, unsigned rows,  \
                                                                    unsigned width, uint8_t *bitmap, uint8_t *high) { \
    typedef packbuf_i_##set##_v V;                                                                                    \
    const unsigned some = T == 64 ? 16 : BYTES; /* units done together */                                             \
    unsigned count = 0;                                                                                               \
    for (unsigned i = 0; i < rows * (1024 / T); i += some, units += some * (T / 8), bitmap += some / 8) {             \
      const V bytes = packbuf_i_##set##_tops(T, units, width);                                                        \
      const type none = mm##_cmpeq_epi8((type)bytes, mm##_setzero_##si());                                            \
      const uint32_t bits = ~(uint32_t)mm##_movemask_epi8(none);                                                      \
      memcpy(bitmap, &bits, some / 8);                                                                                \
      PACKBUF_I_LANES_EACH(k, some / 8) {                                                                             \
        const unsigned here = bits >> (8 * k) & 255;                                                                  \
        const uint64_t front = packbuf_i_##set##_front(bytes, (V)none, k, here);                                      \
        memcpy(high + count, &front, 8);                                                                              \
        count += packbuf_i_##set##_ones(here);                                                                        \
      }                                                                                                               \
    }                                                                                                                 \
    return count;                                                                                                     \
  }                                                                                                                   \
  PACKBUF_I_LANES_INLINE attributes unsigned packbuf_i_##set##_give(                                                  \
      unsigned T, const uint8_t *low, unsigned rows, unsigned width, const uint8_t *bitmap, const uint8_t *high,      \
      unsigned high_size, unsigned count, uint8_t *units, int stream) {                                               \
    typedef packbuf_i_##set##_v V;                                                                                    \
    for (unsigned i = 0; i < rows * (128 / T); i++) {                                                                 \
      const unsigned bits = bitmap[i];                                                                                \
      const packbuf_i_vector_v bytes = packbuf_i_##set##_apart(packbuf_i_eight(high, high_size, count), bits);        \
      count += packbuf_i_##set##_ones(bits);                                                                          \
      PACKBUF_I_LANES_EACH(k, T / BYTES) {                                                                            \
        const V tops = packbuf_i_##set##_wide(T, bytes, k);                                                           \
        packbuf_i_##set##_put(units, packbuf_i_##set##_load(low) | packbuf_i_##set##_left(T, tops, width), stream);   \
        low += BYTES;                                                                                                 \
        units += BYTES;                                                                                               \
      }                                                                                                               \
    }                                                                                                                 \
    return count;                                                                                                     \
  }

/* Split is the packing of the low bits, then a pass that takes the bytes out; join unpacks some rows and gives them
 * their bytes. Both passes find the rows in the first-level cache. codes: the set that packs. */
#define PACKBUF_I_LANES_SPLITS(set, codes_of, attributes)                                                              \
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

#endif /* PACKBUF_I_LANES_VECTORS */
