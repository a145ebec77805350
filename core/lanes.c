/* core/lanes.c: the kernels of packing in blocks (spec section 20) for units of T = 8, 16, 32 or 64 bits: what one is,
 * its definition in plain C ("plain"), and the table of the sets. Faster sets lie in files beside this one.
 * Units are in native byte order, packed words are little-endian; both lie anywhere. All but along and line work on
 * rows of 128 bytes, whole ones. No kernel touches a byte that its arguments do not name (bends also reads the unit
 * before the rows and the one after), nor allocates.
 * May use: base. Must not know: blocks, their modes and headers, columns, errors. */

#if defined(__clang__)
#define PACKBUF_I_LANES_INLINE static inline __attribute__((always_inline, unused))
#elif defined(__GNUC__) /* nothrow: else g++ makes exception tables for them */
#define PACKBUF_I_LANES_INLINE static inline __attribute__((always_inline, unused, nothrow))
#else
#define PACKBUF_I_LANES_INLINE static inline
#endif

enum { PACKBUF_I_ROW = 128 }; /* bytes */

/* How units are made of codes: base + (code << shift), or, where zero is 1, 0 for code 0, 2^(T - 1) for code 1 (the two
 * zeros of floats), and else base + code - 2. shift and zero are not both set; 1 <= width <= T - shift. Arithmetic is
 * modulo 2^T. */
typedef struct packbuf_i_codes {
  uint64_t base;
  uint8_t width, shift, zero;
} packbuf_i_codes;

/* What a scan takes units for. */
typedef enum packbuf_i_scan_kind {
  PACKBUF_I_SCAN_UNSIGNED,
  PACKBUF_I_SCAN_SIGNED,
  PACKBUF_I_SCAN_FLOATS
} packbuf_i_scan_kind;

/* What a scan finds: the T bits of units, filled up with zeros. */
typedef struct packbuf_i_spread {
  uint64_t least, most; /* in signed order when asked for, else unsigned */
  uint64_t differ;      /* OR of (unit ^ first unit) */
  uint64_t least_set;   /* of floats: the least unit but 0 and 2^(T - 1), unsigned */
  int zeros, others;    /* of floats: whether there are units of 0 or 2^(T - 1), and others */
  uint64_t top;         /* the largest, unsigned */
} packbuf_i_spread;

/* rows: 1 to 64. stream: 1 allows non-temporal stores where the output is aligned enough; who asks for them
 * calls packbuf_i_crc_fence() before anyone else may read (a fence a block would take a third of the speed).
 * ahead: NULL, or where the next block's units lie, which are loaded into the cache meanwhile. */
typedef struct packbuf_i_lanes {
  /* Writes the codes of `rows` rows: 128 ceil(rows width / T) bytes of words. Returns the OR of all codes: unless it is
   * below 2^width, they did not fit and what was written is undefined. */
  uint64_t (*pack)(const void *units, unsigned rows, const packbuf_i_codes *codes, uint8_t *words, const void *ahead,
                   int stream);
  /* Rows first to first + rows - 1 (at most 64) of a payload; reads only the words they need. */
  void (*unpack)(const uint8_t *words, unsigned first, unsigned rows, const packbuf_i_codes *codes, void *units,
                 int stream);
  void (*scan)(const void *units, unsigned rows, packbuf_i_scan_kind kind, packbuf_i_spread *spread);
  /* Bit r: row r has a unit other than fill. */
  uint64_t (*dense)(const void *units, unsigned rows, uint64_t fill);
  /* Bit i (LSB first): the step from unit i to the next is not the step to it from the one before. Also reads the units
   * right before and after the rows. Returns how many. */
  unsigned (*bends)(const void *units, unsigned rows, uint8_t *bitmap);
  /* How many of the first units are value + i x step, unit i. Any count, 0 too. */
  unsigned (*along)(const void *units, unsigned count, uint64_t value, uint64_t step);
  /* Writes them. */
  void (*line)(void *units, unsigned count, uint64_t value, uint64_t step, int stream);
  /* Mode split, T = 32 and 64 (NULL for 8 and 16), width at most T - 8: the low bits to words; a bitmap of the units
   * with bits above them to bitmap; those bits, a byte each, to high, which has room for a byte per unit and 64 more
   * (what lies there beyond the bytes is undefined). Returns the number of bytes. *all: the OR of all units; unless it
   * is below 2^(width + 8), what was written is undefined. */
  unsigned (*split)(const void *units, unsigned rows, unsigned width, uint8_t *words, uint8_t *bitmap, uint8_t *high,
                    uint64_t *all, const void *ahead);
  /* Rows first to first + rows - 1 of it. words and bitmap: of row 0 on; high: the bytes of row `first` on, of which
   * high_size may be read; those beyond read as 0. Returns how many bytes the bitmap asks for: more than high_size
   * where it lies. It may change while it is read. */
  unsigned (*join)(const uint8_t *words, const uint8_t *bitmap, const uint8_t *high, unsigned high_size, unsigned first,
                   unsigned rows, unsigned width, void *units, int stream);
} packbuf_i_lanes;

typedef struct packbuf_i_lane_set {
  const char *name;
  packbuf_i_lanes of[4]; /* T = 8, 16, 32, 64 */
  void (*copy)(uint8_t *to, const uint8_t *from, size_t size, int stream);
  unsigned needs; /* of the processor */
} packbuf_i_lane_set;

/* The kernels of a set are made of bodies that take T as their first argument, a constant once they are inlined. */
#define PACKBUF_I_LANES_OF(set, T, attributes)                                                                         \
  static attributes uint64_t packbuf_i_##set##_pack_##T(                                                               \
      const void *units, unsigned rows, const packbuf_i_codes *codes, uint8_t *words, const void *ahead, int stream) { \
    return packbuf_i_##set##_pack(T, (const uint8_t *)units, rows, codes, words, (const uint8_t *)ahead, stream);      \
  }                                                                                                                    \
  static attributes void packbuf_i_##set##_unpack_##T(const uint8_t *words, unsigned first, unsigned rows,             \
                                                      const packbuf_i_codes *codes, void *units, int stream) {         \
    packbuf_i_##set##_unpack(T, words, first, rows, codes, (uint8_t *)units, stream);                                  \
  }                                                                                                                    \
  static attributes void packbuf_i_##set##_scan_##T(const void *units, unsigned rows, packbuf_i_scan_kind kind,        \
                                                    packbuf_i_spread *spread) {                                        \
    packbuf_i_##set##_scan(T, (const uint8_t *)units, rows, kind, spread);                                             \
  }                                                                                                                    \
  static attributes uint64_t packbuf_i_##set##_dense_##T(const void *units, unsigned rows, uint64_t fill) {            \
    return packbuf_i_##set##_dense(T, (const uint8_t *)units, rows, fill);                                             \
  }                                                                                                                    \
  static attributes unsigned packbuf_i_##set##_bends_##T(const void *units, unsigned rows, uint8_t *bitmap) {          \
    return packbuf_i_##set##_bends(T, (const uint8_t *)units, rows, bitmap);                                           \
  }                                                                                                                    \
  static attributes unsigned packbuf_i_##set##_along_##T(const void *units, unsigned count, uint64_t value,            \
                                                         uint64_t step) {                                              \
    return packbuf_i_##set##_along(T, (const uint8_t *)units, count, value, step);                                     \
  }                                                                                                                    \
  static attributes void packbuf_i_##set##_line_##T(void *units, unsigned count, uint64_t value, uint64_t step,        \
                                                    int stream) {                                                      \
    packbuf_i_##set##_line(T, (uint8_t *)units, count, value, step, stream);                                           \
  }

#define PACKBUF_I_LANES_SPLIT(set, T, attributes)                                                                   \
  static attributes unsigned packbuf_i_##set##_split_##T(const void *units, unsigned rows, unsigned width,          \
                                                         uint8_t *words, uint8_t *bitmap, uint8_t *high,            \
                                                         uint64_t *all, const void *ahead) {                        \
    return packbuf_i_##set##_split(T, (const uint8_t *)units, rows, width, words, bitmap, high, all,                \
                                   (const uint8_t *)ahead);                                                         \
  }                                                                                                                 \
  static attributes unsigned packbuf_i_##set##_join_##T(const uint8_t *words, const uint8_t *bitmap,                \
                                                        const uint8_t *high, unsigned high_size, unsigned first,    \
                                                        unsigned rows, unsigned width, void *units, int stream) {   \
    return packbuf_i_##set##_join(T, words, bitmap, high, high_size, first, rows, width, (uint8_t *)units, stream); \
  }

/* One packbuf_i_lanes; the four of a set, with split and join of the set `splits`. */
#define PACKBUF_I_LANES_ENTRY(set, T, split, join)                                                                     \
  {                                                                                                                    \
    packbuf_i_##set##_pack_##T, packbuf_i_##set##_unpack_##T, packbuf_i_##set##_scan_##T, packbuf_i_##set##_dense_##T, \
        packbuf_i_##set##_bends_##T, packbuf_i_##set##_along_##T, packbuf_i_##set##_line_##T, split, join              \
  }
#define PACKBUF_I_LANES_ENTRIES(set, splits)                                                         \
  {                                                                                                  \
    PACKBUF_I_LANES_ENTRY(set, 8, NULL, NULL), PACKBUF_I_LANES_ENTRY(set, 16, NULL, NULL),           \
        PACKBUF_I_LANES_ENTRY(set, 32, packbuf_i_##splits##_split_32, packbuf_i_##splits##_join_32), \
        PACKBUF_I_LANES_ENTRY(set, 64, packbuf_i_##splits##_split_64, packbuf_i_##splits##_join_64)  \
  }

/* ---- plain: the definition ---- */

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_low_bits(unsigned count) { /* 1 to 64 of them */
  return UINT64_MAX >> (64 - count);
}

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_unit_load(unsigned T, const uint8_t *p) {
  uint16_t u16;
  uint32_t u32;
  uint64_t u64;
  switch (T) {
    case 8: return *p;
    case 16: memcpy(&u16, p, 2); return u16;
    case 32: memcpy(&u32, p, 4); return u32;
    default: memcpy(&u64, p, 8); return u64;
  }
}

PACKBUF_I_LANES_INLINE void packbuf_i_unit_store(unsigned T, uint8_t *p, uint64_t unit) {
  const uint16_t u16 = (uint16_t)unit;
  const uint32_t u32 = (uint32_t)unit;
  switch (T) {
    case 8: *p = (uint8_t)unit; break;
    case 16: memcpy(p, &u16, 2); break;
    case 32: memcpy(p, &u32, 4); break;
    default: memcpy(p, &unit, 8); break;
  }
}

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_word_load(unsigned T, const uint8_t *p) {
  switch (T) {
    case 8: return *p;
    case 16: return packbuf_i_load16(p);
    case 32: return packbuf_i_load32(p);
    default: return packbuf_i_load64(p);
  }
}

PACKBUF_I_LANES_INLINE void packbuf_i_word_store(unsigned T, uint8_t *p, uint64_t word) {
  switch (T) {
    case 8: *p = (uint8_t)word; break;
    case 16: packbuf_i_store16(p, (uint16_t)word); break;
    case 32: packbuf_i_store32(p, (uint32_t)word); break;
    default: packbuf_i_store64(p, word); break;
  }
}

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_plain_code(unsigned T, const packbuf_i_codes *codes, uint64_t unit) {
  if (codes->zero && (unit << (64 - T) << 1) == 0) return unit >> (T - 1);
  if (codes->zero) return (unit - codes->base + 2) & packbuf_i_low_bits(T);
  return ((unit - codes->base) & packbuf_i_low_bits(T)) >> codes->shift;
}

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_plain_unit(unsigned T, const packbuf_i_codes *codes, uint64_t code) {
  if (codes->zero) return code < 2 ? code << (T - 1) : codes->base + code - 2;
  return codes->base + (code << codes->shift);
}

/* The words being filled, one a lane, with `used` bits each. */
typedef struct packbuf_i_plain_words {
  uint64_t word[PACKBUF_I_ROW];
  unsigned used;
  uint8_t *to;
} packbuf_i_plain_words;

/* Adds a row of codes of `width` bits and stores the words when they are full. */
PACKBUF_I_LANES_INLINE void packbuf_i_plain_add(unsigned T, packbuf_i_plain_words *words, const uint64_t *row,
                                                unsigned width) {
  const unsigned lanes = 1024 / T, used = words->used;
  const int full = used + width >= T;
  for (unsigned lane = 0; lane < lanes; lane++) {
    const uint64_t code = row[lane] & packbuf_i_low_bits(width);
    const uint64_t word = words->word[lane] | code << used;
    if (full) packbuf_i_word_store(T, words->to + lane * (T / 8), word);
    words->word[lane] = !full ? word : used + width == T ? 0 : code >> (T - used);
  }
  if (full) words->to += PACKBUF_I_ROW;
  words->used = full ? used + width - T : used + width;
}

/* Stores the last words, when they are not full. */
PACKBUF_I_LANES_INLINE void packbuf_i_plain_end(unsigned T, const packbuf_i_plain_words *words) {
  for (unsigned lane = 0; words->used > 0 && lane < 1024 / T; lane++)
    packbuf_i_word_store(T, words->to + lane * (T / 8), words->word[lane]);
}

/* The code of one lane of a row. */
PACKBUF_I_LANES_INLINE uint64_t packbuf_i_plain_get(unsigned T, const uint8_t *words, unsigned row, unsigned lane,
                                                    unsigned width) {
  const unsigned bit = row * width, used = bit % T;
  const uint8_t *at = words + bit / T * PACKBUF_I_ROW + lane * (T / 8);
  uint64_t code = packbuf_i_word_load(T, at) >> used;
  if (used + width > T) code |= packbuf_i_word_load(T, at + PACKBUF_I_ROW) << (T - used);
  return code & packbuf_i_low_bits(width);
}

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_plain_pack(unsigned T, const uint8_t *units, unsigned rows,
                                                     const packbuf_i_codes *codes, uint8_t *words, const uint8_t *ahead,
                                                     int stream) {
  packbuf_i_plain_words state = {{0}, 0, words};
  uint64_t row[PACKBUF_I_ROW], all = 0;
  (void)ahead;
  (void)stream;
  for (unsigned r = 0; r < rows; r++, units += PACKBUF_I_ROW) {
    for (unsigned lane = 0; lane < 1024 / T; lane++) {
      row[lane] = packbuf_i_plain_code(T, codes, packbuf_i_unit_load(T, units + lane * (T / 8)));
      all |= row[lane];
    }
    packbuf_i_plain_add(T, &state, row, codes->width);
  }
  packbuf_i_plain_end(T, &state);
  return all;
}

PACKBUF_I_LANES_INLINE void packbuf_i_plain_unpack(unsigned T, const uint8_t *words, unsigned first, unsigned rows,
                                                   const packbuf_i_codes *codes, uint8_t *units, int stream) {
  (void)stream;
  for (unsigned row = first; row < first + rows; row++)
    for (unsigned lane = 0; lane < 1024 / T; lane++, units += T / 8)
      packbuf_i_unit_store(T, units,
                           packbuf_i_plain_unit(T, codes, packbuf_i_plain_get(T, words, row, lane, codes->width)));
}

PACKBUF_I_LANES_INLINE void packbuf_i_plain_scan(unsigned T, const uint8_t *units, unsigned rows,
                                                 packbuf_i_scan_kind kind, packbuf_i_spread *spread) {
  /* flipped, it makes signed order unsigned */
  const uint64_t sign = kind == PACKBUF_I_SCAN_SIGNED ? (uint64_t)1 << (T - 1) : 0;
  const uint64_t first = packbuf_i_unit_load(T, units);
  uint64_t least = UINT64_MAX, most = 0, differ = 0, set = UINT64_MAX, top = 0;
  int zeros = 0, others = 0;
  for (unsigned i = 0; i < rows * (1024 / T); i++) {
    const uint64_t unit = packbuf_i_unit_load(T, units + (size_t)i * (T / 8)), placed = unit ^ sign;
    if (placed < least) least = placed;
    if (placed > most) most = placed;
    if (unit << (64 - T) << 1 == 0) {
      zeros = 1;
    } else {
      others = 1;
      if (unit < set) set = unit;
    }
    if (unit > top) top = unit;
    differ |= unit ^ first;
  }
  spread->least = least ^ sign;
  spread->most = most ^ sign;
  spread->differ = differ;
  spread->least_set = kind == PACKBUF_I_SCAN_FLOATS ? set & packbuf_i_low_bits(T) : 0;
  spread->zeros = kind == PACKBUF_I_SCAN_FLOATS && zeros;
  spread->others = kind == PACKBUF_I_SCAN_FLOATS && others;
  spread->top = top;
}

PACKBUF_I_LANES_INLINE uint64_t packbuf_i_plain_dense(unsigned T, const uint8_t *units, unsigned rows, uint64_t fill) {
  uint64_t dense = 0;
  for (unsigned r = 0; r < rows; r++, units += PACKBUF_I_ROW) {
    uint64_t other = 0;
    for (unsigned lane = 0; lane < 1024 / T; lane++) other |= packbuf_i_unit_load(T, units + lane * (T / 8)) ^ fill;
    dense |= (uint64_t)(other != 0) << r;
  }
  return dense;
}

/* Whether the step from a unit to the next is not the step to it from the one before. */
PACKBUF_I_LANES_INLINE unsigned packbuf_i_plain_bend(unsigned T, const uint8_t *unit) {
  const uint64_t before = packbuf_i_unit_load(T, unit - T / 8), after = packbuf_i_unit_load(T, unit + T / 8);
  return ((before + after - 2 * packbuf_i_unit_load(T, unit)) & packbuf_i_low_bits(T)) != 0;
}

PACKBUF_I_LANES_INLINE unsigned packbuf_i_plain_bends(unsigned T, const uint8_t *units, unsigned rows,
                                                      uint8_t *bitmap) {
  unsigned count = 0;
  for (unsigned i = 0; i < rows * (128 / T); i++) {
    unsigned bits = 0;
    for (unsigned k = 0; k < 8; k++, units += T / 8) {
      const unsigned bit = packbuf_i_plain_bend(T, units);
      bits |= bit << k;
      count += bit;
    }
    bitmap[i] = (uint8_t)bits;
  }
  return count;
}

PACKBUF_I_LANES_INLINE unsigned packbuf_i_plain_along(unsigned T, const uint8_t *units, unsigned count, uint64_t value,
                                                      uint64_t step) {
  unsigned i = 0;
  while (i < count && packbuf_i_unit_load(T, units + (size_t)i * (T / 8)) == (value & packbuf_i_low_bits(T))) {
    value += step;
    i++;
  }
  return i;
}

PACKBUF_I_LANES_INLINE void packbuf_i_plain_line(unsigned T, uint8_t *units, unsigned count, uint64_t value,
                                                 uint64_t step, int stream) {
  (void)stream;
  for (unsigned i = 0; i < count; i++, units += T / 8, value += step) packbuf_i_unit_store(T, units, value);
}

PACKBUF_I_LANES_INLINE unsigned packbuf_i_plain_split(unsigned T, const uint8_t *units, unsigned rows, unsigned width,
                                                      uint8_t *words, uint8_t *bitmap, uint8_t *high, uint64_t *all,
                                                      const uint8_t *ahead) {
  packbuf_i_plain_words state = {{0}, 0, words};
  uint64_t row[PACKBUF_I_ROW], seen = 0;
  unsigned count = 0;
  (void)ahead;
  for (unsigned r = 0; r < rows; r++, units += PACKBUF_I_ROW, bitmap += 128 / T) {
    uint32_t bits = 0;
    for (unsigned lane = 0; lane < 1024 / T; lane++) {
      row[lane] = packbuf_i_unit_load(T, units + lane * (T / 8));
      seen |= row[lane];
      high[count] = (uint8_t)(row[lane] >> width);
      bits |= (uint32_t)(high[count] != 0) << lane;
      count += high[count] != 0;
    }
    for (unsigned i = 0; i < 128 / T; i++) bitmap[i] = (uint8_t)(bits >> (8 * i));
    packbuf_i_plain_add(T, &state, row, width);
  }
  packbuf_i_plain_end(T, &state);
  *all = seen;
  return count;
}

PACKBUF_I_LANES_INLINE unsigned packbuf_i_plain_join(unsigned T, const uint8_t *words, const uint8_t *bitmap,
                                                     const uint8_t *high, unsigned high_size, unsigned first,
                                                     unsigned rows, unsigned width, uint8_t *units, int stream) {
  unsigned count = 0;
  (void)stream;
  for (unsigned row = first; row < first + rows; row++)
    for (unsigned lane = 0; lane < 1024 / T; lane++, units += T / 8) {
      const unsigned i = row * (1024 / T) + lane;
      uint64_t unit = packbuf_i_plain_get(T, words, row, lane, width);
      if (bitmap[i / 8] >> (i % 8) & 1) {
        if (count < high_size) unit |= (uint64_t)high[count] << width;
        count++;
      }
      packbuf_i_unit_store(T, units, unit);
    }
  return count;
}

static void packbuf_i_plain_copy(uint8_t *to, const uint8_t *from, size_t size, int stream) {
  (void)stream;
  if (size > 0) memcpy(to, from, size);
}

PACKBUF_I_LANES_OF(plain, 8, )
PACKBUF_I_LANES_OF(plain, 16, )
PACKBUF_I_LANES_OF(plain, 32, )
PACKBUF_I_LANES_OF(plain, 64, )
PACKBUF_I_LANES_SPLIT(plain, 32, )
PACKBUF_I_LANES_SPLIT(plain, 64, )
