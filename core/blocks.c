/* core/blocks.c: one block of a buffer packed in blocks (spec section 20): its header, and the units in its payload,
 * all of them, some, or one; whether the payload is what the header says. Header and payload are untrusted, and may
 * change while they are read: every number is fetched once, checked, and the checked copy used.
 * May use: base, lanes. Must not know: columns, views, how blocks are chosen, errors. */

enum {
  PACKBUF_I_BLOCK_BYTES = 8192,                          /* of the units of a full block */
  PACKBUF_I_PAYLOAD_ROOM = PACKBUF_I_BLOCK_BYTES + 1024, /* no payload takes more, nor does packing one write more */
  PACKBUF_I_BLOCK_LINES = 64,
  PACKBUF_I_BLOCK_TOPS = 32
};

/* The modes; but for line, FILLED may be added. */
enum {
  PACKBUF_I_MODE_PLAIN = 0,
  PACKBUF_I_MODE_LINE = 1,
  PACKBUF_I_MODE_FRAME = 2,
  PACKBUF_I_MODE_ZERO = 3,
  PACKBUF_I_MODE_SPLIT = 4,
  PACKBUF_I_MODE_DICTIONARY = 5,
  PACKBUF_I_FILLED = 128
};

typedef struct packbuf_i_block {
  uint64_t base;
  uint32_t place; /* of the payload, in 64 bytes */
  uint8_t mode, width, shift, extra;
} packbuf_i_block;

static void packbuf_i_block_load(packbuf_i_block *block, const uint8_t *header) {
  uint8_t bytes[16];
  memcpy(bytes, header, sizeof bytes);
  PACKBUF_I_FETCHED_STRUCT(bytes);
  block->base = packbuf_i_load64(bytes);
  block->place = packbuf_i_load32(bytes + 8);
  block->mode = bytes[12];
  block->width = bytes[13];
  block->shift = bytes[14];
  block->extra = bytes[15];
}

static void packbuf_i_block_store(const packbuf_i_block *block, uint8_t *header) {
  packbuf_i_store64(header, block->base);
  packbuf_i_store32(header + 8, block->place);
  header[12] = block->mode;
  header[13] = block->width;
  header[14] = block->shift;
  header[15] = block->extra;
}

/* ---- sizes; bits is T: 8, 16, 32 or 64 ---- */

static uint32_t packbuf_i_round_64(uint32_t size) { return (size + 63) & ~(uint32_t)63; }

/* The units of a row: 1 << this. */
static unsigned packbuf_i_row_log(unsigned bits) { return 10 - packbuf_i_first_set(bits); }

/* The blocks that hold `units` units (or bytes), `full` of which fill one. */
static uint64_t packbuf_i_blocks_of(uint64_t units, unsigned full) { return units / full + (units % full != 0); }

static unsigned packbuf_i_block_row_count(unsigned units, unsigned bits) {
  const unsigned log = packbuf_i_row_log(bits);
  return (units + (1u << log) - 1) >> log;
}

static uint32_t packbuf_i_words_size(unsigned rows, unsigned width, unsigned bits) {
  return (rows * width + bits - 1) >> packbuf_i_first_set(bits) << 7;
}

static uint32_t packbuf_i_bitmap_size(unsigned rows, unsigned bits) {
  return packbuf_i_round_64(rows << packbuf_i_row_log(bits) >> 3);
}

/* Of mode line: the bytes that a line's value takes in the payload, and its step. */
static unsigned packbuf_i_value_bytes(const packbuf_i_block *block) { return block->shift & 15u; }
static unsigned packbuf_i_step_bytes(const packbuf_i_block *block) { return block->shift >> 4; }

static unsigned packbuf_i_lines_used(const packbuf_i_block *block) {
  return block->extra * (2 + packbuf_i_value_bytes(block) + packbuf_i_step_bytes(block));
}

static int packbuf_i_line_bytes_sound(unsigned bytes, unsigned bits) {
  return bytes <= bits / 8 && (bytes & (bytes - 1)) == 0;
}

/* Where rule I15 finds the first wrong field of a header, as an offset in it; -1 when it is sound. In the order mode,
 * base, width, shift, extra, each held against the others as they are. */
static int packbuf_i_block_unsound(const packbuf_i_block *block, unsigned bits) {
  const unsigned mode = block->mode & ~(unsigned)PACKBUF_I_FILLED;
  const unsigned width = block->width, shift = block->shift, extra = block->extra;
  int base = block->base == 0, wide = width >= 1 && width <= bits, shifted = shift == 0, more = extra == 0;
  switch (mode) {
    case PACKBUF_I_MODE_PLAIN: wide = width == 0; break;
    case PACKBUF_I_MODE_LINE:
      if (block->mode & PACKBUF_I_FILLED) return 12;
      base = block->base <= packbuf_i_low_bits(bits);
      wide = extra == 0 || shift >> 4 == 0 || width == 0;
      shifted = extra == 0
                    ? shift == 0
                    : packbuf_i_line_bytes_sound(shift & 15, bits) && packbuf_i_line_bytes_sound(shift >> 4, bits);
      more = extra <= PACKBUF_I_BLOCK_LINES;
      break;
    case PACKBUF_I_MODE_FRAME:
      base = block->base <= packbuf_i_low_bits(bits);
      shifted = width + shift <= bits;
      break;
    case PACKBUF_I_MODE_ZERO: base = block->base <= packbuf_i_low_bits(bits); break;
    case PACKBUF_I_MODE_SPLIT: wide = width >= 1 && width + 8 <= bits; break;
    case PACKBUF_I_MODE_DICTIONARY:
      if (bits != 16 && bits != 32) return 12;
      wide = wide && (width == shift + packbuf_i_bits_of(extra) || (width == 1 && shift + extra == 0));
      shifted = shift < bits && bits - shift <= 16;
      more = extra < PACKBUF_I_BLOCK_TOPS;
      break;
    default: return 12;
  }
  return !base ? 0 : !wide ? 13 : !shifted ? 14 : !more ? 15 : -1;
}

/* The bytes of payload that a sound header of `units` units asks for; UINT32_MAX when only the payload tells (filled,
 * split). */
static uint32_t packbuf_i_block_size(const packbuf_i_block *block, unsigned bits, unsigned units) {
  const uint32_t words = packbuf_i_words_size(packbuf_i_block_row_count(units, bits), block->width, bits);
  switch (block->mode) {
    case PACKBUF_I_MODE_PLAIN: return packbuf_i_round_64(units * (bits / 8));
    case PACKBUF_I_MODE_LINE: return packbuf_i_round_64(packbuf_i_lines_used(block));
    case PACKBUF_I_MODE_FRAME:
    case PACKBUF_I_MODE_ZERO: return words;
    case PACKBUF_I_MODE_DICTIONARY: return 64 + words;
    default: return UINT32_MAX;
  }
}

/* ---- units as bytes ---- */

static const packbuf_i_lanes *packbuf_i_lanes_of(const packbuf_i_lane_set *set, unsigned bits) {
  return &set->of[packbuf_i_first_set(bits) - 3];
}

/* Units in native order to little-endian ones, or back: the same thing. */
static void packbuf_i_copy_units(const packbuf_i_lane_set *set, uint8_t *to, const uint8_t *from, uint32_t size,
                                 unsigned bits, int stream) {
  if (packbuf_i_big_endian())
    for (uint32_t at = 0; at < size; at += bits / 8)
      packbuf_i_unit_store(bits, to + at, packbuf_i_word_load(bits, from + at));
  else set->copy(to, from, size, stream);
}

static int packbuf_i_all_zero(const uint8_t *bytes, uint32_t size) {
  uint8_t all = 0;
  for (uint32_t i = 0; i < size; i++) all |= bytes[i];
  return all == 0;
}

/* How many bits are set in `size` bytes. */
static unsigned packbuf_i_bits_in(const uint8_t *bytes, unsigned size) {
  unsigned count = 0;
  uint64_t word = 0;
  for (; size >= 8; size -= 8, bytes += 8) {
    memcpy(&word, bytes, 8);
    count += packbuf_i_bits_set(word);
  }
  word = 0;
  if (size > 0) memcpy(&word, bytes, size);
  return count + packbuf_i_bits_set(word);
}

/* ---- mode line ---- */

/* Where the lines end, when the payload is that of lines. */
static int packbuf_i_line_ends(const packbuf_i_block *block, const uint8_t *payload, uint32_t size, unsigned units,
                               uint16_t *ends) {
  unsigned line = 0, before = 0;
  if (size != packbuf_i_round_64(packbuf_i_lines_used(block))) return 0;
  if (block->extra > 0 && packbuf_i_load16(payload) != 0) return 0;
  for (; line + 1 < block->extra; line++) {
    unsigned first = packbuf_i_load16(payload + 2 * (line + 1));
    PACKBUF_I_FETCHED(first);
    if (first <= before || first >= units) return 0;
    ends[line] = (uint16_t)first;
    before = first;
  }
  ends[line] = (uint16_t)units;
  return 1;
}

/* A signed number of 1, 2, 4 or 8 bytes, as a step modulo 2^64. */
static uint64_t packbuf_i_signed_load(unsigned bytes, const uint8_t *p) {
  const uint64_t number = packbuf_i_word_load(bytes * 8, p), sign = (uint64_t)1 << (bytes * 8 - 1);
  return (number ^ sign) - sign;
}

/* The unit at `at` of a line, and the step from it to the next. */
static uint64_t packbuf_i_line_unit(const packbuf_i_block *block, const uint8_t *payload, unsigned bits, unsigned line,
                                    unsigned at, uint64_t *step) {
  const unsigned lines = block->extra, v = packbuf_i_value_bytes(block), s = packbuf_i_step_bytes(block);
  uint64_t value = block->base;
  *step = packbuf_i_signed_load(1, &block->width);
  if (lines > 0 && s > 0) *step = packbuf_i_signed_load(s, payload + (2 + v) * lines + s * line);
  if (lines > 0 && v > 0) value += packbuf_i_word_load(v * 8, payload + 2 * lines + v * line);
  return (value + at * *step) & packbuf_i_low_bits(bits);
}

/* Lines as packbuf_i_block_lines has them, one after the other: each is written in whole vectors where there is room,
 * beyond its end, before the next one is. */
static void packbuf_i_write_units_of_lines(const packbuf_i_lanes *lanes, const packbuf_i_block *block,
                                           const uint8_t *payload, unsigned bits, const uint16_t *ends, unsigned first,
                                           unsigned count, unsigned room, uint8_t *out, int stream) {
  const unsigned unit = bits / 8, vector = 64 / unit;
  unsigned begin = 0, line = 0;
  while (ends[line] <= first) begin = ends[line++];
  for (unsigned done = 0; done < count; line++) {
    unsigned some = ends[line] - first - done, wide;
    uint64_t step;
    const uint64_t value = packbuf_i_line_unit(block, payload, bits, line, first + done - begin, &step);
    if (some > count - done) some = count - done;
    wide = (some + vector - 1) / vector * vector;
    lanes->line(out + (size_t)done * unit, wide <= room - done ? wide : some, value, step, stream);
    begin = ends[line];
    done += some;
  }
}

static int packbuf_i_block_lines(const packbuf_i_lane_set *set, const packbuf_i_block *block, const uint8_t *payload,
                                 uint32_t size, unsigned bits, unsigned units, unsigned first, unsigned count,
                                 uint8_t *out, int stream) {
  const packbuf_i_lanes *lanes = packbuf_i_lanes_of(set, bits);
  uint8_t room[PACKBUF_I_BLOCK_BYTES + 64];
  uint16_t ends[PACKBUF_I_BLOCK_LINES];
  if (!packbuf_i_line_ends(block, payload, size, units, ends)) return 0;
  if (stream && block->extra > 1) { /* lines share lines of the cache, which non-temporal stores have to write whole */
    packbuf_i_write_units_of_lines(lanes, block, payload, bits, ends, first, count, sizeof room / (bits / 8), room, 0);
    set->copy(out, room, count * (bits / 8), stream); /* native units already */
  } else {
    packbuf_i_write_units_of_lines(lanes, block, payload, bits, ends, first, count, count, out, stream);
  }
  return 1;
}

/* ---- the other modes: rows that are stored, and rows of the fill ---- */

/* The parts of a payload, their sizes checked. */
typedef struct packbuf_i_stored {
  packbuf_i_codes codes;
  const uint8_t *words; /* plain: the units */
  const uint8_t *tops, *bitmap, *high;
  uint64_t dense, fill; /* filled */
  uint32_t high_size;
  unsigned bits, rows; /* rows: those stored */
  uint8_t mode;        /* without FILLED */
  uint8_t filled;
} packbuf_i_stored;

/* Fetches the mask of dense rows and the fill. */
static int packbuf_i_stored_fill(packbuf_i_stored *stored, const uint8_t *payload, uint32_t size) {
  uint64_t dense;
  if (size < 64) return 0;
  dense = packbuf_i_load64(payload);
  PACKBUF_I_FETCHED(dense);
  if (dense == 0 || (dense & ~packbuf_i_low_bits(stored->rows))) return 0;
  stored->dense = dense;
  stored->fill = packbuf_i_word_load(stored->bits, payload + 8);
  stored->rows = packbuf_i_bits_set(dense);
  return 1;
}

/* The header is sound and its mode not line; 0 when the payload's size is not what it says. */
static int packbuf_i_stored_open(packbuf_i_stored *stored, const packbuf_i_block *block, const uint8_t *payload,
                                 uint32_t size, unsigned bits, unsigned units) {
  uint32_t words, bitmap;
  stored->bits = bits;
  stored->rows = packbuf_i_block_row_count(units, bits);
  stored->mode = block->mode & (uint8_t)~PACKBUF_I_FILLED;
  stored->filled = block->mode != stored->mode;
  stored->codes.base = block->base;
  stored->codes.width = block->width;
  stored->codes.shift = stored->mode == PACKBUF_I_MODE_FRAME ? block->shift : 0;
  stored->codes.zero = stored->mode == PACKBUF_I_MODE_ZERO;
  if (stored->filled) {
    if (!packbuf_i_stored_fill(stored, payload, size)) return 0;
    payload += 64;
    size -= 64;
  }
  stored->words = payload;
  words = packbuf_i_words_size(stored->rows, block->width, bits);
  switch (stored->mode) {
    case PACKBUF_I_MODE_PLAIN:
      return size == (stored->filled ? stored->rows * PACKBUF_I_ROW : packbuf_i_round_64(units * (bits / 8)));
    case PACKBUF_I_MODE_SPLIT:
      bitmap = packbuf_i_bitmap_size(stored->rows, bits);
      if (size < words + bitmap) return 0;
      stored->bitmap = payload + words;
      stored->high = stored->bitmap + bitmap;
      stored->high_size = size - words - bitmap;
      return 1;
    case PACKBUF_I_MODE_DICTIONARY:
      stored->tops = payload;
      stored->words = payload + 64;
      return size == 64 + words;
    default: return size == words;
  }
}

/* The stored row that row `row` of the block is; meant for a dense one. */
static unsigned packbuf_i_stored_rank(const packbuf_i_stored *stored, unsigned row) {
  return stored->filled ? packbuf_i_bits_set(stored->dense & (((uint64_t)1 << row) - 1)) : row;
}

/* join for units that have no kernel of it: those of 16 bits. */
static unsigned packbuf_i_join_16(const packbuf_i_stored *stored, const packbuf_i_lanes *lanes, const uint8_t *high,
                                  uint32_t high_size, unsigned first, unsigned rows, uint8_t *out) {
  unsigned count = 0;
  lanes->unpack(stored->words, first, rows, &stored->codes, out, 0);
  for (unsigned row = first; row < first + rows; row++, out += PACKBUF_I_ROW) {
    uint64_t bits = packbuf_i_load64(stored->bitmap + 8 * row);
    PACKBUF_I_FETCHED(bits);
    for (; bits != 0; bits &= bits - 1, count++) {
      uint8_t *unit = out + 2 * packbuf_i_first_set(bits);
      const unsigned byte = count < high_size ? high[count] : 0;
      packbuf_i_unit_store(16, unit, packbuf_i_unit_load(16, unit) | byte << stored->codes.width);
    }
  }
  return count;
}

static int packbuf_i_stored_join(const packbuf_i_stored *stored, const packbuf_i_lanes *lanes, unsigned first,
                                 unsigned rows, uint8_t *out, int stream) {
  const unsigned skip = packbuf_i_bits_in(stored->bitmap, first << packbuf_i_row_log(stored->bits) >> 3);
  const uint32_t left = stored->high_size - skip;
  if (skip > stored->high_size) return 0;
  if (lanes->join == NULL) return packbuf_i_join_16(stored, lanes, stored->high + skip, left, first, rows, out) <= left;
  return lanes->join(stored->words, stored->bitmap, stored->high + skip, left, first, rows, stored->codes.width, out,
                     stream) <= left;
}

/* Replaces the bits from `shift` on of units of 16 or 32 bits by what a table of `entries` (a power of 2) has for them,
 * 8 bytes at a time, in either byte order; to may be from. The table's numbers have their bits in place. */
static void packbuf_i_replace_tops(uint8_t *to, const uint8_t *from, uint32_t size, unsigned bits, unsigned shift,
                                   const uint32_t *table, unsigned entries) {
  const uint64_t one = ((uint64_t)1 << shift) - 1, low = bits == 16 ? one * 0x0001000100010001u : one << 32 | one;
  const unsigned mask = (entries - 1) & ((1u << (bits - shift)) - 1), half = bits == 16;
  for (uint32_t i = 0; i < size; i += 8) {
    uint64_t units, tops;
    memcpy(&units, from + i, 8);
    tops = units >> shift;
    units = (units & low) | table[tops & mask] | (uint64_t)table[tops >> 32 & mask] << 32;
    if (half) units |= (uint64_t)table[tops >> 16 & mask] << 16 | (uint64_t)table[tops >> 48 & mask] << 48;
    memcpy(to + i, &units, 8);
  }
}

/* What the codes of a dictionary stand for, in place. */
static void packbuf_i_stored_translate(const packbuf_i_stored *stored, const packbuf_i_block *block, unsigned rows,
                                       uint8_t *out) {
  uint32_t tops[PACKBUF_I_BLOCK_TOPS];
  for (unsigned i = 0; i < PACKBUF_I_BLOCK_TOPS; i++)
    tops[i] = (uint32_t)(((uint64_t)packbuf_i_load16(stored->tops + (i <= block->extra ? 2 * i : 0)) << block->shift) &
                         packbuf_i_low_bits(stored->bits));
  packbuf_i_replace_tops(out, out, rows * PACKBUF_I_ROW, stored->bits, block->shift, tops, PACKBUF_I_BLOCK_TOPS);
}

/* Stored rows first to first + rows - 1; not of plain without fill, whose last row may be cut. */
static int packbuf_i_stored_read(const packbuf_i_lane_set *set, const packbuf_i_stored *stored,
                                 const packbuf_i_block *block, unsigned first, unsigned rows, uint8_t *out,
                                 int stream) {
  const packbuf_i_lanes *lanes = packbuf_i_lanes_of(set, stored->bits);
  switch (stored->mode) {
    case PACKBUF_I_MODE_PLAIN:
      packbuf_i_copy_units(set, out, stored->words + first * PACKBUF_I_ROW, rows * PACKBUF_I_ROW, stored->bits, stream);
      return 1;
    case PACKBUF_I_MODE_SPLIT: return packbuf_i_stored_join(stored, lanes, first, rows, out, stream);
    case PACKBUF_I_MODE_DICTIONARY:
      lanes->unpack(stored->words, first, rows, &stored->codes, out, 0);
      packbuf_i_stored_translate(stored, block, rows, out);
      return 1;
    default: lanes->unpack(stored->words, first, rows, &stored->codes, out, stream); return 1;
  }
}

/* Whole rows of the block: runs of stored rows and of the fill. */
static int packbuf_i_block_rows(const packbuf_i_lane_set *set, const packbuf_i_stored *stored,
                                const packbuf_i_block *block, unsigned row, unsigned rows, uint8_t *out, int stream) {
  if (!stored->filled) return packbuf_i_stored_read(set, stored, block, row, rows, out, stream);
  while (rows > 0) {
    const uint64_t rest = stored->dense >> row, others = rest & 1 ? ~rest : rest;
    unsigned run = rows;
    if (others != 0 && packbuf_i_first_set(others) < rows) run = packbuf_i_first_set(others);
    if (!(rest & 1))
      packbuf_i_lanes_of(set, stored->bits)->line(out, run << packbuf_i_row_log(stored->bits), stored->fill, 0, stream);
    else if (!packbuf_i_stored_read(set, stored, block, packbuf_i_stored_rank(stored, row), run, out, stream)) return 0;
    row += run;
    rows -= run;
    out += run * PACKBUF_I_ROW;
  }
  return 1;
}

/* Units first to first + count - 1 of a block of `units` to out, in native order, at any alignment; only what they need
 * is read. 0, and out undefined, when header or payload (of size bytes) is broken for them. stream as in the lanes. */
static int packbuf_i_block_units(const packbuf_i_lane_set *set, const packbuf_i_block *block, const uint8_t *payload,
                                 uint32_t size, unsigned bits, unsigned units, unsigned first, unsigned count,
                                 void *out, int stream) {
  const unsigned log = packbuf_i_row_log(bits), in_row = 1u << log, unit = bits / 8;
  packbuf_i_stored stored;
  uint8_t *at = (uint8_t *)out, cut[PACKBUF_I_ROW];
  if (packbuf_i_block_unsound(block, bits) >= 0 || first > units || count > units - first) return 0;
  if (count == 0) return 1;
  if (block->mode == PACKBUF_I_MODE_LINE)
    return packbuf_i_block_lines(set, block, payload, size, bits, units, first, count, at, stream);
  if (!packbuf_i_stored_open(&stored, block, payload, size, bits, units)) return 0;
  if (block->mode == PACKBUF_I_MODE_PLAIN) {
    packbuf_i_copy_units(set, at, payload + first * unit, count * unit, bits, stream);
    return 1;
  }
  while (count > 0) {
    const unsigned lead = first & (in_row - 1);
    unsigned some = count & ~(in_row - 1);
    if (lead == 0 && some > 0) {
      if (!packbuf_i_block_rows(set, &stored, block, first >> log, some >> log, at, stream)) return 0;
    } else {
      some = count < in_row - lead ? count : in_row - lead;
      if (!packbuf_i_block_rows(set, &stored, block, first >> log, 1, cut, 0)) return 0;
      memcpy(at, cut + lead * unit, some * unit);
    }
    at += some * unit;
    first += some;
    count -= some;
  }
  return 1;
}

/* ---- one unit ---- */

static uint64_t packbuf_i_stored_code(const packbuf_i_stored *stored, unsigned row, unsigned lane) {
  const unsigned width = stored->codes.width;
  switch (stored->bits) {
    case 8: return packbuf_i_plain_get(8, stored->words, row, lane, width);
    case 16: return packbuf_i_plain_get(16, stored->words, row, lane, width);
    case 32: return packbuf_i_plain_get(32, stored->words, row, lane, width);
    default: return packbuf_i_plain_get(64, stored->words, row, lane, width);
  }
}

/* Unit i of those stored in mode split. */
static int packbuf_i_stored_split(const packbuf_i_stored *stored, unsigned i, uint64_t *unit) {
  uint8_t bits = stored->bitmap[i >> 3];
  unsigned before;
  PACKBUF_I_FETCHED(bits);
  if (!(bits >> (i & 7) & 1)) return 1;
  before = packbuf_i_bits_in(stored->bitmap, i >> 3) + packbuf_i_bits_set(bits & ((1u << (i & 7)) - 1));
  if (before >= stored->high_size) return 0;
  *unit |= (uint64_t)stored->high[before] << stored->codes.width;
  return 1;
}

/* Unit i of a block; 0 when header or payload is broken for it. */
static int packbuf_i_block_unit(const packbuf_i_block *block, const uint8_t *payload, uint32_t size, unsigned bits,
                                unsigned units, unsigned i, uint64_t *unit) {
  const unsigned log = packbuf_i_row_log(bits), lane = i & ((1u << log) - 1);
  packbuf_i_stored stored;
  unsigned row = i >> log;
  uint64_t code;
  if (packbuf_i_block_unsound(block, bits) >= 0 || i >= units) return 0;
  if (block->mode == PACKBUF_I_MODE_LINE) {
    uint16_t ends[PACKBUF_I_BLOCK_LINES];
    unsigned line = 0;
    if (!packbuf_i_line_ends(block, payload, size, units, ends)) return 0;
    while (i >= ends[line]) line++;
    *unit = packbuf_i_line_unit(block, payload, bits, line, line > 0 ? i - ends[line - 1] : i, &code);
    return 1;
  }
  if (!packbuf_i_stored_open(&stored, block, payload, size, bits, units)) return 0;
  if (stored.filled && !(stored.dense >> row & 1)) {
    *unit = stored.fill;
    return 1;
  }
  row = packbuf_i_stored_rank(&stored, row);
  if (stored.mode == PACKBUF_I_MODE_PLAIN) {
    *unit = packbuf_i_word_load(bits, stored.words + ((row << log) + lane) * (bits / 8));
    return 1;
  }
  code = packbuf_i_stored_code(&stored, row, lane);
  if (stored.mode == PACKBUF_I_MODE_DICTIONARY) {
    const uint64_t top = code >> block->shift;
    *unit = (uint64_t)packbuf_i_load16(stored.tops + (top <= block->extra ? 2 * top : 0)) << block->shift;
    *unit = (*unit | (code & (((uint64_t)1 << block->shift) - 1))) & packbuf_i_low_bits(bits);
    return 1;
  }
  *unit = packbuf_i_plain_unit(bits, &stored.codes, code) & packbuf_i_low_bits(bits);
  return stored.mode != PACKBUF_I_MODE_SPLIT || packbuf_i_stored_split(&stored, (row << log) + lane, unit);
}

/* ---- rules I17 and D10 ---- */

static int packbuf_i_tops_sound(const packbuf_i_block *block, const uint8_t *tops, unsigned bits) {
  uint32_t before = 0;
  for (unsigned i = 0; i <= block->extra; i++) {
    const uint32_t top = packbuf_i_load16(tops + 2 * i);
    if (top >> (bits - block->shift) || (i > 0 && top <= before)) return 0;
    before = top;
  }
  return packbuf_i_all_zero(tops + 2 * (block->extra + 1u), 64 - 2 * (block->extra + 1u));
}

/* Whether the payload is what the mode of its block says, in all that is to be looked at. */
static int packbuf_i_block_whole(const packbuf_i_block *block, const uint8_t *payload, uint32_t size, unsigned bits,
                                 unsigned units) {
  packbuf_i_stored stored;
  if (units == 0 || packbuf_i_block_unsound(block, bits) >= 0) return 0;
  if (block->mode == PACKBUF_I_MODE_LINE) {
    const unsigned used = packbuf_i_lines_used(block);
    uint16_t ends[PACKBUF_I_BLOCK_LINES];
    return packbuf_i_line_ends(block, payload, size, units, ends) && packbuf_i_all_zero(payload + used, size - used);
  }
  if (!packbuf_i_stored_open(&stored, block, payload, size, bits, units)) return 0;
  if (stored.filled && !packbuf_i_all_zero(payload + 8 + bits / 8, 56 - bits / 8)) return 0;
  if (block->mode == PACKBUF_I_MODE_PLAIN)
    return packbuf_i_all_zero(payload + units * (bits / 8), size - units * (bits / 8));
  if (stored.mode == PACKBUF_I_MODE_DICTIONARY) return packbuf_i_tops_sound(block, stored.tops, bits);
  if (stored.mode == PACKBUF_I_MODE_SPLIT) {
    const unsigned used = stored.rows << packbuf_i_row_log(bits) >> 3;
    const unsigned bytes = packbuf_i_bits_in(stored.bitmap, used);
    return packbuf_i_all_zero(stored.bitmap + used, packbuf_i_bitmap_size(stored.rows, bits) - used) &&
           packbuf_i_round_64(bytes) == stored.high_size &&
           packbuf_i_all_zero(stored.high + bytes, stored.high_size - bytes);
  }
  return 1;
}
