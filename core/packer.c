/* core/packer.c: packing one block, and what is decided before: the recipe of a buffer, from a sample of its blocks,
 * and the choice for each block, both canonical (spec section 19, profiles 1 to 3). Units are trusted memory. Where
 * profile and recipe let it, a block is first packed in one pass, as the recipe's split or the frame before it; else,
 * or when that fails, it is looked at while it lies in the first-level cache, and then packed. Nothing allocates.
 * May use: base, lanes, blocks. Must not know: columns, where units and payloads lie, errors. */

enum {
  PACKBUF_I_STRIPE = 64,        /* blocks, after which nothing is remembered */
  PACKBUF_I_FILL_SHARE = 16,    /* a block is filled from one row of so many on */
  PACKBUF_I_COVER_LINES = 24,   /* that a block is covered with */
  PACKBUF_I_BEND_ROWS = 8,      /* that are looked at for bends at a time */
  PACKBUF_I_TOPS_POSSIBLE = 512 /* tops that floats of 16 or 32 bits can have */
};

/* How the blocks of a buffer may be packed. */
typedef struct packbuf_i_recipe {
  uint8_t bits, is_signed, is_float, profile;
  uint8_t lines, fill, dictionary; /* allowed */
  uint8_t split;                   /* its width, or 0: not allowed */
  uint8_t mantissa;                /* floats of 16 or 32 bits: its bits */
  uint8_t small;                   /* the sample packs to a thirty-second or less */
} packbuf_i_recipe;

/* One thread's state. */
typedef struct packbuf_i_packer {
  const packbuf_i_lane_set *set;
  const packbuf_i_lanes *lanes;
  packbuf_i_recipe recipe;
  packbuf_i_block before; /* of the same stripe */
  int has_before;
  uint8_t seen[PACKBUF_I_TOPS_POSSIBLE];       /* the tops of the rows looked at last */
  uint8_t scratch[PACKBUF_I_BLOCK_BYTES + 64]; /* rows gathered, filled up, or turned into codes */
} packbuf_i_packer;

static void packbuf_i_packer_begin(packbuf_i_packer *packer, const packbuf_i_lane_set *set,
                                   const packbuf_i_recipe *recipe) {
  packer->set = set;
  packer->lanes = packbuf_i_lanes_of(set, recipe->bits);
  packer->recipe = *recipe;
  packer->has_before = 0;
}

/* Called before the first block of each stripe. */
static void packbuf_i_packer_stripe(packbuf_i_packer *packer) { packer->has_before = 0; }

static uint8_t *packbuf_i_packer_scratch(packbuf_i_packer *packer) {
  return packer->scratch + ((size_t)(0u - (uintptr_t)packer->scratch) & 63u);
}

/* Where a block is looked at before it is packed, the next one is loaded step by step meanwhile: its lines from *loaded
 * to `to` bytes. */
static void packbuf_i_load_ahead(const uint8_t *ahead, uint32_t *loaded, uint32_t to) {
  uint32_t at = *loaded;
  if (ahead == NULL) return;
  if (to > PACKBUF_I_BLOCK_BYTES) to = PACKBUF_I_BLOCK_BYTES;
  for (; at < to; at += 64) PACKBUF_I_PREFETCH((const void *)((uintptr_t)ahead + at));
  *loaded = at;
}

/* ---- lines ---- */

typedef struct packbuf_i_cover {
  uint64_t values[PACKBUF_I_COVER_LINES], steps[PACKBUF_I_COVER_LINES];
  uint16_t firsts[PACKBUF_I_COVER_LINES];
  unsigned lines;
} packbuf_i_cover;

/* Marks where the steps of units change: bit i is that of unit i + 1. A line bends at its first and last unit alone, so
 * 0, with the bitmap unfinished, when there are more bends than the lines of a cover can have. */
static int packbuf_i_find_bends(const packbuf_i_packer *packer, const uint8_t *units, unsigned count,
                                const uint8_t *ahead, uint32_t *loaded, uint8_t *bitmap) {
  const unsigned bits = packer->recipe.bits, unit = bits / 8, in_row = PACKBUF_I_ROW / unit;
  const unsigned inner = count > 2 ? count - 2 : 0, whole = inner / in_row, rest = inner % in_row;
  uint8_t last[PACKBUF_I_ROW / 8];
  unsigned bends = 0;
  for (unsigned row = 0; row < whole; row += PACKBUF_I_BEND_ROWS) {
    const unsigned some = whole - row < PACKBUF_I_BEND_ROWS ? whole - row : (unsigned)PACKBUF_I_BEND_ROWS;
    bends += packer->lanes->bends(units + unit + (size_t)row * PACKBUF_I_ROW, some, bitmap + row * in_row / 8);
    if (bends > 2 * PACKBUF_I_COVER_LINES) return 0;
    packbuf_i_load_ahead(ahead, loaded, (row + some) * PACKBUF_I_ROW);
  }
  memset(bitmap + whole * in_row / 8, 0, in_row / 8 + 8);
  if (rest == 0) return 1;
  if (whole == 0) {
    for (unsigned i = 0; i < rest; i++)
      bitmap[i / 8] |= (uint8_t)(packbuf_i_plain_bend(bits, units + (size_t)(i + 1) * unit) << i % 8);
    return 1;
  }
  /* a row that ends with the last of them: some of its bits are there */
  packer->lanes->bends(units + (size_t)(1 + inner - in_row) * unit, 1, last);
  for (unsigned i = 0, at = inner - in_row; i < in_row; i += 8, at += 8) {
    const unsigned byte = (unsigned)last[i / 8] << at % 8;
    bitmap[at / 8] |= (uint8_t)byte;
    bitmap[at / 8 + 1] |= (uint8_t)(byte >> 8);
  }
  return 1;
}

/* The first of the bits `from` to `end` - 1 that is set, or `end`. The bitmap has 8 bytes after them. */
static unsigned packbuf_i_next_bit(const uint8_t *bitmap, unsigned from, unsigned end) {
  while (from < end) {
    const uint64_t word = packbuf_i_load64(bitmap + from / 8) >> from % 8;
    if (word) return from + packbuf_i_first_set(word) < end ? from + packbuf_i_first_set(word) : end;
    from += 64 - from % 8;
  }
  return end;
}

/* Covers units with at most PACKBUF_I_COVER_LINES lines; 0 when they do not suffice. */
static int packbuf_i_cover_units(const packbuf_i_packer *packer, const uint8_t *units, unsigned count,
                                 const uint8_t *ahead, uint32_t *loaded, packbuf_i_cover *cover) {
  const unsigned bits = packer->recipe.bits, unit = bits / 8, inner = count > 2 ? count - 2 : 0;
  uint8_t bends[PACKBUF_I_BLOCK_BYTES / 8 + 8]; /* loaded 8 at a time */
  cover->lines = 0;
  if (!packbuf_i_find_bends(packer, units, count, ahead, loaded, bends)) return 0;
  for (unsigned at = 0, end; at < count; at = end, cover->lines++) {
    const uint8_t *p = units + (size_t)at * unit;
    const uint64_t value = packbuf_i_unit_load(bits, p);
    uint64_t step = 0;
    end = at + 1;
    if (cover->lines == PACKBUF_I_COVER_LINES) return 0;
    if (at + 1 < count) {
      step = (packbuf_i_unit_load(bits, p + unit) - value) & packbuf_i_low_bits(bits);
      if (at + 2 == count || !(bends[at / 8] >> at % 8 & 1)) {
        end = packbuf_i_next_bit(bends, at, inner);
        end = end == inner ? count : end + 2; /* bit i is unit i + 1, the last of its line */
      } else if (step == 0) {
        end = at + 2;
      } else {
        step = 0;
      }
    }
    cover->values[cover->lines] = value;
    cover->steps[cover->lines] = step;
    cover->firsts[cover->lines] = (uint16_t)at;
  }
  packbuf_i_load_ahead(ahead, loaded, count * unit);
  return 1;
}

/* Whether all units are equal: mostly seen from three of them. */
static int packbuf_i_units_equal(const packbuf_i_packer *packer, const uint8_t *units, unsigned count) {
  const unsigned bits = packer->recipe.bits, unit = bits / 8;
  const uint64_t value = packbuf_i_unit_load(bits, units);
  return packbuf_i_unit_load(bits, units + (size_t)(count / 2) * unit) == value &&
         packbuf_i_unit_load(bits, units + (size_t)(count - 1) * unit) == value &&
         packer->lanes->along(units, count, value, 0) == count;
}

/* The fewest of 0, 1, 2, 4, 8 bytes that hold a number. */
static unsigned packbuf_i_bytes_of(uint64_t number) {
  const unsigned bytes = (packbuf_i_bits_of(number) + 7) / 8;
  return bytes <= 2 ? bytes : bytes <= 4 ? 4 : 8;
}

/* The fewest of 1, 2, 4, 8 bytes that hold a step of `bits` bits as a signed number. */
static unsigned packbuf_i_step_bytes_of(uint64_t step, unsigned bits) {
  const uint64_t sign = (uint64_t)1 << (bits - 1), wide = (step ^ sign) - sign;
  return packbuf_i_bytes_of((wide >> 63 ? ~wide : wide) << 1 | 1);
}

/* The header of a block of these lines, and the bytes of its payload. */
static uint32_t packbuf_i_cover_block(const packbuf_i_cover *cover, unsigned bits, packbuf_i_block *block) {
  uint64_t least = cover->values[0], most = least, differ = 0;
  unsigned step_bytes = 0;
  memset(block, 0, sizeof *block);
  block->mode = PACKBUF_I_MODE_LINE;
  for (unsigned i = 0; i < cover->lines; i++) {
    const unsigned bytes = packbuf_i_step_bytes_of(cover->steps[i], bits);
    if (cover->values[i] < least) least = cover->values[i];
    if (cover->values[i] > most) most = cover->values[i];
    if (bytes > step_bytes) step_bytes = bytes;
    differ |= cover->steps[i] ^ cover->steps[0];
  }
  if (differ == 0 && step_bytes == 1) {
    step_bytes = 0;
    block->width = (uint8_t)cover->steps[0];
  }
  block->base = least;
  if (cover->lines == 1 && step_bytes == 0) return 0;
  block->extra = (uint8_t)cover->lines;
  block->shift = (uint8_t)(packbuf_i_bytes_of(most - least) | step_bytes << 4);
  return packbuf_i_round_64(packbuf_i_lines_used(block));
}

/* The low `bytes` bytes of a number; 0 to 8. */
static void packbuf_i_store_bytes(uint8_t *to, uint64_t number, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) to[i] = (uint8_t)(number >> 8 * i);
}

static void packbuf_i_write_lines(const packbuf_i_cover *cover, const packbuf_i_block *block, uint32_t size,
                                  uint8_t *payload) {
  const unsigned lines = block->extra, v = packbuf_i_value_bytes(block), s = packbuf_i_step_bytes(block);
  memset(payload, 0, size);
  for (unsigned i = 0; i < lines; i++) {
    packbuf_i_store16(payload + 2 * i, cover->firsts[i]);
    packbuf_i_store_bytes(payload + 2 * lines + v * i, cover->values[i] - block->base, v);
    packbuf_i_store_bytes(payload + (2 + v) * lines + s * i, cover->steps[i], s);
  }
}

/* ---- what is to be known of rows ---- */

/* Rows side by side: of count units, those that the last row lacks follow them with any content. */
typedef struct packbuf_i_unit_rows {
  const uint8_t *units;
  unsigned rows, count;
} packbuf_i_unit_rows;

typedef struct packbuf_i_survey {
  packbuf_i_spread spread;
  unsigned tops; /* where a dictionary is allowed: how many differ */
} packbuf_i_survey;

/* Marks the tops of rows, whole ones; returns how many there are. */
static unsigned packbuf_i_see_tops(packbuf_i_packer *packer, const packbuf_i_unit_rows *rows) {
  const unsigned bits = packer->recipe.bits, mantissa = packer->recipe.mantissa;
  const uint8_t *from = rows->units, *end = from + (size_t)rows->rows * PACKBUF_I_ROW;
  const unsigned mask = (1u << (bits - mantissa)) - 1;
  uint8_t *seen = packer->seen;
  unsigned tops = 0;
  memset(seen, 0, PACKBUF_I_TOPS_POSSIBLE);
  for (; from < end; from += 8) {
    uint64_t units;
    memcpy(&units, from, 8);
    units >>= mantissa;
    seen[units & mask] = 1;
    seen[units >> 32 & mask] = 1;
    if (bits == 32) continue;
    seen[units >> 16 & mask] = 1;
    seen[units >> 48 & mask] = 1;
  }
  for (unsigned i = 0; i < PACKBUF_I_TOPS_POSSIBLE; i += 8) tops += packbuf_i_bits_set(packbuf_i_load64(seen + i));
  return tops;
}

static void packbuf_i_survey_rows(packbuf_i_packer *packer, const packbuf_i_unit_rows *rows, packbuf_i_survey *survey) {
  const packbuf_i_recipe *recipe = &packer->recipe;
  const packbuf_i_scan_kind kind = recipe->is_float ? PACKBUF_I_SCAN_FLOATS : (packbuf_i_scan_kind)recipe->is_signed;
  packer->lanes->scan(rows->units, rows->rows, kind, &survey->spread);
  survey->tops = recipe->dictionary ? packbuf_i_see_tops(packer, rows) : 0;
}

static uint32_t packbuf_i_zero_to_64(uint8_t *payload, uint32_t size) {
  const uint32_t end = packbuf_i_round_64(size);
  memset(payload + size, 0, end - size);
  return end;
}

/* Full rows, as split of `width`. *bytes: how many units have one; *all: the OR of all units. */
static uint32_t packbuf_i_write_split(const packbuf_i_packer *packer, const packbuf_i_unit_rows *rows, unsigned width,
                                      uint8_t *payload, const uint8_t *ahead, unsigned *bytes, uint64_t *all) {
  const unsigned bits = packer->recipe.bits, used = rows->rows << packbuf_i_row_log(bits) >> 3;
  uint8_t *bitmap = payload + packbuf_i_words_size(rows->rows, width, bits);
  uint8_t *high = bitmap + packbuf_i_bitmap_size(rows->rows, bits);
  *bytes = packer->lanes->split(rows->units, rows->rows, width, payload, bitmap, high, all, ahead);
  packbuf_i_zero_to_64(bitmap, used);
  return (uint32_t)(high - payload) + packbuf_i_zero_to_64(high, *bytes);
}

/* ---- the choice ---- */

typedef struct packbuf_i_choice {
  packbuf_i_block block;
  uint32_t size;            /* of the payload */
  uint64_t dense, fill;     /* where it is filled */
  packbuf_i_cover cover;    /* where it is lines with a payload */
  packbuf_i_unit_rows rows; /* where it is not: all, or the dense ones, in the scratch until the next choice */
} packbuf_i_choice;

/* Takes this header when its payload is smaller than that of the choice so far. */
static void packbuf_i_offer(packbuf_i_choice *choice, unsigned mode, uint32_t size, uint64_t base, unsigned width,
                            unsigned shift, unsigned extra) {
  if (size >= choice->size) return;
  choice->size = size;
  choice->block.base = base;
  choice->block.place = 0;
  choice->block.mode = (uint8_t)mode;
  choice->block.width = (uint8_t)width;
  choice->block.shift = (uint8_t)shift;
  choice->block.extra = (uint8_t)extra;
}

/* Offers what rows can be packed as, each with `more` bytes and the bits of `filled`; plain: the bytes that takes. */
static void packbuf_i_offer_rows(const packbuf_i_recipe *recipe, const packbuf_i_survey *survey, unsigned rows,
                                 uint32_t plain, uint32_t more, unsigned filled, packbuf_i_choice *choice) {
  const packbuf_i_spread *spread = &survey->spread;
  const unsigned bits = recipe->bits;
  unsigned width = 1, shift = 0;
  if (spread->differ) {
    shift = packbuf_i_first_set(spread->differ);
    width = packbuf_i_bits_of(((spread->most - spread->least) & packbuf_i_low_bits(bits)) >> shift);
  }
  if (width < bits)
    packbuf_i_offer(choice, PACKBUF_I_MODE_FRAME | filled, more + packbuf_i_words_size(rows, width, bits),
                    spread->least, width, shift, 0);
  if (recipe->is_float && spread->zeros && spread->others) {
    width = packbuf_i_bits_of(spread->top - spread->least_set); /* the largest code is 2 more: T bits if that is 2^T */
    if (width < bits) width = packbuf_i_bits_of(spread->top - spread->least_set + 2);
    if (width < bits)
      packbuf_i_offer(choice, PACKBUF_I_MODE_ZERO | filled, more + packbuf_i_words_size(rows, width, bits),
                      spread->least_set, width, 0, 0);
  }
  if (recipe->dictionary && survey->tops <= PACKBUF_I_BLOCK_TOPS) {
    width = recipe->mantissa + packbuf_i_bits_of(survey->tops - 1);
    packbuf_i_offer(choice, PACKBUF_I_MODE_DICTIONARY | filled, more + 64 + packbuf_i_words_size(rows, width, bits), 0,
                    width, recipe->mantissa, survey->tops - 1);
  }
  packbuf_i_offer(choice, PACKBUF_I_MODE_PLAIN | filled, more + plain, 0, 0, 0, 0);
}

/* The first row all of whose units are equal (of a last row, those there are); its number, or `rows`. */
static unsigned packbuf_i_find_fill(const packbuf_i_packer *packer, const uint8_t *units, unsigned count,
                                    const uint8_t *ahead, uint32_t *loaded) {
  const unsigned bits = packer->recipe.bits, unit = bits / 8, log = packbuf_i_row_log(bits), in_row = 1u << log;
  const unsigned rows = packbuf_i_block_row_count(count, bits);
  for (unsigned row = 0; row < rows; row++) {
    const uint8_t *at = units + (size_t)row * PACKBUF_I_ROW;
    const unsigned some = row < count >> log ? in_row : count & (in_row - 1);
    const uint64_t value = packbuf_i_unit_load(bits, at);
    packbuf_i_load_ahead(ahead, loaded, (row + 1) * PACKBUF_I_ROW);
    if (packbuf_i_unit_load(bits, at + some / 2 * unit) != value) continue;
    if (packbuf_i_unit_load(bits, at + (some - 1) * unit) != value) continue;
    if (packer->lanes->along(at, some, value, 0) == some) return row;
  }
  return rows;
}

/* Bit r: row r has a unit other than fill. */
static uint64_t packbuf_i_dense_rows(const packbuf_i_packer *packer, const uint8_t *units, unsigned count,
                                     uint64_t fill, const uint8_t *ahead, uint32_t *loaded) {
  const unsigned log = packbuf_i_row_log(packer->recipe.bits);
  const unsigned whole = count >> log, rest = count & ((1u << log) - 1);
  uint64_t dense = 0;
  for (unsigned row = 0; row < whole; row += 16) {
    const unsigned some = whole - row < 16 ? whole - row : 16;
    dense |= packer->lanes->dense(units + (size_t)row * PACKBUF_I_ROW, some, fill) << row;
    packbuf_i_load_ahead(ahead, loaded, (row + some) * PACKBUF_I_ROW);
  }
  if (rest > 0 && packer->lanes->along(units + (size_t)whole * PACKBUF_I_ROW, rest, fill, 0) != rest)
    dense |= (uint64_t)1 << whole;
  return dense;
}

/* Copies the rows that `dense` names to the scratch. */
static void packbuf_i_gather_dense(packbuf_i_packer *packer, const uint8_t *units, unsigned count, uint64_t dense,
                                   packbuf_i_unit_rows *rows) {
  const unsigned bits = packer->recipe.bits, unit = bits / 8, log = packbuf_i_row_log(bits);
  uint8_t *to = packbuf_i_packer_scratch(packer);
  rows->units = to;
  rows->rows = rows->count = 0;
  for (; dense != 0; dense &= dense - 1) {
    const unsigned row = packbuf_i_first_set(dense), left = count - (row << log);
    if (left >= 1u << log) {
      memcpy(to, units + (size_t)row * PACKBUF_I_ROW, PACKBUF_I_ROW);
      rows->count += 1u << log;
    } else {
      memcpy(to, units + (size_t)row * PACKBUF_I_ROW, (size_t)left * unit);
      rows->count += left;
    }
    to += PACKBUF_I_ROW;
    rows->rows++;
  }
}

/* Gives the units that the last row in the scratch lacks a value. */
static void packbuf_i_pad_rows(packbuf_i_packer *packer, const packbuf_i_unit_rows *rows, uint64_t value) {
  const unsigned bits = packer->recipe.bits, all = rows->rows << packbuf_i_row_log(bits);
  uint8_t *scratch = packbuf_i_packer_scratch(packer);
  for (unsigned i = rows->count; i < all; i++) packbuf_i_unit_store(bits, scratch + (size_t)i * (bits / 8), value);
}

/* The rows that `dense` names (0: all), in place where they are whole and lie side by side, else in the scratch. */
static void packbuf_i_take_rows(packbuf_i_packer *packer, const uint8_t *units, unsigned count, uint64_t dense,
                                packbuf_i_unit_rows *rows) {
  const unsigned bits = packer->recipe.bits, log = packbuf_i_row_log(bits),
                 total = packbuf_i_block_row_count(count, bits);
  const unsigned first = dense == 0 ? 0 : packbuf_i_first_set(dense);
  const uint64_t run = (dense == 0 ? packbuf_i_low_bits(total) : dense) >> first;
  if ((run & (run + 1)) == 0 && (count & ((1u << log) - 1)) == 0) {
    rows->units = units + (size_t)first * PACKBUF_I_ROW;
    rows->rows = packbuf_i_bits_set(run);
    rows->count = rows->rows << log;
    return;
  }
  packbuf_i_gather_dense(packer, units, count, dense == 0 ? packbuf_i_low_bits(total) : dense, rows);
}

/* The split of the recipe for rows that take `plain` bytes as they are, written to payload; 0 when they are not for
 * it. */
static uint32_t packbuf_i_try_split(packbuf_i_packer *packer, const packbuf_i_unit_rows *rows, uint32_t plain,
                                    packbuf_i_block *block, uint8_t *payload, const uint8_t *ahead) {
  const unsigned width = packer->recipe.split;
  uint64_t all;
  unsigned bytes;
  uint32_t size;
  packbuf_i_pad_rows(packer, rows, 0);
  size = packbuf_i_write_split(packer, rows, width, payload, ahead, &bytes, &all);
  if (all >> width >= 256 || bytes == 0 || bytes * 8 > rows->count * 7 || size > plain) return 0;
  memset(block, 0, sizeof *block);
  block->mode = PACKBUF_I_MODE_SPLIT;
  block->width = (uint8_t)width;
  return size;
}

/* The mask of the dense rows of a block when enough of its rows are of one fill, which goes to choice->fill; else 0. */
static uint64_t packbuf_i_choose_dense(packbuf_i_packer *packer, const uint8_t *units, unsigned count,
                                       const uint8_t *ahead, uint32_t *loaded, packbuf_i_choice *choice) {
  const unsigned bits = packer->recipe.bits, total = packbuf_i_block_row_count(count, bits);
  const unsigned row = packbuf_i_find_fill(packer, units, count, ahead, loaded);
  uint64_t dense;
  if (row == total) return 0;
  choice->fill = packbuf_i_unit_load(bits, units + (size_t)row * PACKBUF_I_ROW);
  dense = packbuf_i_dense_rows(packer, units, count, choice->fill, ahead, loaded);
  return (total - packbuf_i_bits_set(dense)) * PACKBUF_I_FILL_SHARE < total ? 0 : dense;
}

/* Offers the rows of a block, the dense ones where it is filled. A split is written as it is tried. */
static void packbuf_i_choose_unit_rows(packbuf_i_packer *packer, const uint8_t *units, unsigned count, uint8_t *payload,
                                       const uint8_t *ahead, uint32_t *loaded, packbuf_i_choice *choice) {
  const packbuf_i_recipe *recipe = &packer->recipe;
  const unsigned bits = recipe->bits;
  const uint64_t dense = recipe->fill ? packbuf_i_choose_dense(packer, units, count, ahead, loaded, choice) : 0;
  const unsigned more = dense ? 64 : 0, filled = dense ? PACKBUF_I_FILLED : 0;
  packbuf_i_unit_rows *const rows = &choice->rows;
  packbuf_i_survey survey;
  packbuf_i_block split;
  uint32_t size, plain;
  choice->dense = dense;
  packbuf_i_take_rows(packer, units, count, dense, rows);
  plain = dense ? rows->rows * PACKBUF_I_ROW : packbuf_i_round_64(count * (bits / 8));
  size = recipe->split ? packbuf_i_try_split(packer, rows, plain, &split, payload + more, NULL) : 0;
  if (size > 0) {
    packbuf_i_offer(choice, PACKBUF_I_MODE_SPLIT | filled, more + size, 0, split.width, 0, 0);
    return;
  }
  packbuf_i_pad_rows(packer, rows, packbuf_i_unit_load(bits, rows->units));
  packbuf_i_survey_rows(packer, rows, &survey);
  packbuf_i_offer_rows(recipe, &survey, rows->rows, plain, more, filled, choice);
}

/* What any mode but line takes at the least: filled, 64 bytes and a row of words; else the words of one-bit codes, or
 * plain. */
static uint32_t packbuf_i_least_of_others(unsigned bits, unsigned count) {
  const uint32_t words = packbuf_i_words_size(packbuf_i_block_row_count(count, bits), 1, bits);
  const uint32_t plain = packbuf_i_round_64(count * (bits / 8)), least = words < plain ? words : plain;
  return least < 64 + PACKBUF_I_ROW ? least : 64 + PACKBUF_I_ROW;
}

/* The choice of section 19 ("A block is chosen"). payload: room where a split is written as it is tried; what is left
 * there counts only when the choice is a split. */
static void packbuf_i_choose_block(packbuf_i_packer *packer, const uint8_t *units, unsigned count, uint8_t *payload,
                                   const uint8_t *ahead, uint32_t *loaded, packbuf_i_choice *choice) {
  const packbuf_i_recipe *recipe = &packer->recipe;
  const unsigned bits = recipe->bits;
  choice->size = UINT32_MAX;
  if (recipe->lines) {
    if (packbuf_i_cover_units(packer, units, count, ahead, loaded, &choice->cover)) {
      choice->size = packbuf_i_cover_block(&choice->cover, bits, &choice->block);
      if (choice->size <= packbuf_i_least_of_others(bits, count)) return;
    }
  } else if (packbuf_i_units_equal(packer, units, count)) {
    memset(&choice->block, 0, sizeof choice->block);
    choice->block.mode = PACKBUF_I_MODE_LINE;
    choice->block.base = packbuf_i_unit_load(bits, units);
    choice->size = 0;
    return;
  }
  packbuf_i_choose_unit_rows(packer, units, count, payload, ahead, loaded, choice);
}

/* ---- writing what was chosen ---- */

/* Writes the tops of the rows to the payload and their codes to the scratch, where the rows may lie. */
static void packbuf_i_write_tops(packbuf_i_packer *packer, packbuf_i_unit_rows *rows, uint8_t *payload) {
  const unsigned bits = packer->recipe.bits, mantissa = packer->recipe.mantissa;
  uint8_t *codes = packbuf_i_packer_scratch(packer);
  uint32_t table[PACKBUF_I_TOPS_POSSIBLE], tops = 0;
  memset(payload, 0, 64);
  memset(table, 0, sizeof table);
  for (unsigned at = 0; at < PACKBUF_I_TOPS_POSSIBLE; at += 8)
    for (uint64_t marks = packbuf_i_load64(packer->seen + at); marks != 0; marks &= marks - 1) {
      const unsigned top = at + packbuf_i_first_set(marks) / 8;
      table[top] = tops << mantissa;
      packbuf_i_store16(payload + 2 * tops++, (uint16_t)top);
    }
  packbuf_i_replace_tops(codes, rows->units, rows->rows * PACKBUF_I_ROW, bits, mantissa, table,
                         1u << (bits - mantissa));
  rows->units = codes;
}

/* Writes rows in a mode (without FILLED; not split, which is written as it is tried); units that the last row lacks get
 * code 0. Returns the bytes. */
static uint32_t packbuf_i_write_unit_rows(packbuf_i_packer *packer, const packbuf_i_block *block, unsigned mode,
                                          packbuf_i_unit_rows *rows, uint8_t *payload, const uint8_t *ahead,
                                          int stream) {
  const unsigned bits = packer->recipe.bits;
  uint32_t tops = 0;
  packbuf_i_codes codes = {0, 0, 0, 0};
  codes.width = block->width;
  if (mode == PACKBUF_I_MODE_DICTIONARY) {
    packbuf_i_write_tops(packer, rows, payload);
    tops = 64;
  } else {
    codes.base = block->base;
    codes.shift = block->shift;
    codes.zero = mode == PACKBUF_I_MODE_ZERO;
  }
  packbuf_i_pad_rows(packer, rows, mode == PACKBUF_I_MODE_FRAME ? block->base : 0);
  if (mode == PACKBUF_I_MODE_PLAIN) {
    packbuf_i_copy_units(packer->set, payload, rows->units, rows->rows * PACKBUF_I_ROW, bits, stream);
    return rows->rows * PACKBUF_I_ROW;
  }
  packer->lanes->pack(rows->units, rows->rows, &codes, payload + tops, ahead, stream);
  return tops + packbuf_i_words_size(rows->rows, block->width, bits);
}

static void packbuf_i_write_choice(packbuf_i_packer *packer, packbuf_i_choice *choice, const uint8_t *units,
                                   unsigned count, uint8_t *payload, const uint8_t *ahead, int stream) {
  const unsigned bits = packer->recipe.bits, mode = choice->block.mode & ~(unsigned)PACKBUF_I_FILLED;
  if (mode == PACKBUF_I_MODE_LINE) {
    if (choice->size > 0) packbuf_i_write_lines(&choice->cover, &choice->block, choice->size, payload);
    return;
  }
  if (choice->block.mode == PACKBUF_I_MODE_PLAIN) {
    packbuf_i_copy_units(packer->set, payload, units, count * (bits / 8), bits, stream);
    packbuf_i_zero_to_64(payload, count * (bits / 8));
    return;
  }
  if (choice->block.mode & PACKBUF_I_FILLED) {
    packbuf_i_store64(payload, choice->dense);
    memset(payload + 8, 0, 56);
    packbuf_i_word_store(bits, payload + 8, choice->fill);
    payload += 64;
  }
  if (mode == PACKBUF_I_MODE_SPLIT) return; /* as it was tried */
  packbuf_i_write_unit_rows(packer, &choice->block, mode, &choice->rows, payload, ahead, stream);
}

/* ---- one block ---- */

/* The frame of the block before, in one pass; 0 when the block is not one for it. */
static uint32_t packbuf_i_try_frame(const packbuf_i_packer *packer, const packbuf_i_unit_rows *rows,
                                    packbuf_i_block *block, uint8_t *payload, const uint8_t *ahead, int stream) {
  const packbuf_i_block *before = &packer->before;
  packbuf_i_codes codes = {0, 0, 0, 0};
  unsigned used;
  if (before->mode != PACKBUF_I_MODE_FRAME || before->shift != 0) return 0;
  codes.base = before->base;
  codes.width = before->width;
  used = packbuf_i_bits_of(packer->lanes->pack(rows->units, rows->rows, &codes, payload, ahead, stream));
  if (used > before->width || used + 2u <= before->width) return 0;
  *block = *before;
  return packbuf_i_words_size(rows->rows, before->width, packer->recipe.bits);
}

/* Packs a block of count units: its header (place 0) and its payload, for which there is room for
 * PACKBUF_I_PAYLOAD_ROOM bytes, returning how many it takes: a multiple of 64, at most PACKBUF_I_BLOCK_BYTES. ahead
 * and stream as in the lanes. */
static uint32_t packbuf_i_pack_block(packbuf_i_packer *packer, const uint8_t *units, unsigned count,
                                     packbuf_i_block *block, uint8_t *payload, const uint8_t *ahead, int stream) {
  const packbuf_i_recipe *recipe = &packer->recipe;
  uint32_t size = 0;
  if (packer->has_before && count == PACKBUF_I_BLOCK_BYTES / (recipe->bits / 8u) && recipe->profile != 3 &&
      !recipe->lines && !recipe->fill) {
    packbuf_i_unit_rows rows;
    packbuf_i_take_rows(packer, units, count, 0, &rows);
    size = recipe->split ? packbuf_i_try_split(packer, &rows, PACKBUF_I_BLOCK_BYTES, block, payload, ahead)
                         : packbuf_i_try_frame(packer, &rows, block, payload, ahead, stream);
  }
  if (size == 0) {
    packbuf_i_choice choice;
    uint32_t loaded = 0;
    packbuf_i_choose_block(packer, units, count, payload, ahead, &loaded, &choice);
    packbuf_i_write_choice(packer, &choice, units, count, payload, loaded < PACKBUF_I_BLOCK_BYTES ? ahead : NULL,
                           stream);
    *block = choice.block;
    size = choice.size;
  }
  packer->before = *block;
  packer->has_before = 1;
  return size;
}

/* ---- the recipe ---- */

/* The sample of a buffer. */
typedef struct packbuf_i_block_sample {
  const uint8_t *const *blocks;
  const unsigned *units;
  unsigned count;
} packbuf_i_block_sample;

/* Chooses every block of the sample as the packer's recipe says; returns the bytes of all payloads. */
static uint32_t packbuf_i_try_recipe(packbuf_i_packer *packer, const packbuf_i_block_sample *sample, unsigned *lines,
                                     unsigned *filled) {
  uint8_t payload[PACKBUF_I_PAYLOAD_ROOM]; /* where split counts */
  uint32_t size = 0;
  *lines = *filled = 0;
  for (unsigned i = 0; i < sample->count; i++) {
    packbuf_i_choice choice;
    uint32_t loaded = 0;
    packbuf_i_choose_block(packer, sample->blocks[i], sample->units[i], payload,
                           i + 1 < sample->count ? sample->blocks[i + 1] : NULL, &loaded, &choice);
    size += choice.size;
    *lines += choice.block.mode == PACKBUF_I_MODE_LINE;
    *filled += choice.block.mode >= PACKBUF_I_FILLED;
  }
  return size;
}

/* The bits of the largest unit of the sample. */
static unsigned packbuf_i_sample_bits(const packbuf_i_block_sample *sample, unsigned bits) {
  uint64_t all = 0;
  for (unsigned b = 0; b < sample->count; b++)
    for (unsigned i = 0; i < sample->units[b]; i++)
      all |= packbuf_i_unit_load(bits, sample->blocks[b] + (size_t)i * (bits / 8));
  return packbuf_i_bits_of(all);
}

/* Of floats that may have a dictionary; else 0. */
static unsigned packbuf_i_mantissa_bits(packbuf_dtype dtype) {
  if (dtype.code == PACKBUF_DTYPE_BFLOAT) return 7;
  if (dtype.code != PACKBUF_DTYPE_FLOAT || dtype.bits == 64) return 0;
  return dtype.bits == 16 ? 10 : 23;
}

/* The recipe of a buffer whose units are of `dtype` (a bitmap's: uint of 8 bits), from its sample: count blocks, 1 to
 * 16, of units[i] units each, native order, any alignment. profile: 1 to 3. 0: the buffer is not to be packed. */
static int packbuf_i_make_recipe(const packbuf_i_lane_set *set, packbuf_dtype dtype, unsigned profile,
                                 const uint8_t *const *blocks, const unsigned *units, unsigned count,
                                 packbuf_i_recipe *recipe) {
  const packbuf_i_block_sample sample = {blocks, units, count};
  const int integers = dtype.code == PACKBUF_DTYPE_INT || dtype.code == PACKBUF_DTYPE_UINT;
  packbuf_i_packer packer;
  unsigned lines, filled, ignored, width;
  uint32_t size, better, raw = 0;
  memset(recipe, 0, sizeof *recipe);
  if (dtype.code == PACKBUF_DTYPE_COMPLEX) return 0;
  recipe->bits = dtype.bits;
  recipe->profile = (uint8_t)profile;
  recipe->is_signed = dtype.code == PACKBUF_DTYPE_INT;
  recipe->is_float = !integers && dtype.code != PACKBUF_DTYPE_BOOL;
  recipe->mantissa = (uint8_t)packbuf_i_mantissa_bits(dtype);
  recipe->lines = recipe->fill = 1;
  for (unsigned i = 0; i < count; i++) raw += units[i] * (dtype.bits / 8u);
  packbuf_i_packer_begin(&packer, set, recipe);
  size = packbuf_i_try_recipe(&packer, &sample, &lines, &filled);
  if ((profile == 3 && recipe->mantissa > 0) || (profile != 2 && integers && dtype.bits >= 32)) {
    width = recipe->mantissa > 0 ? 0 : packbuf_i_sample_bits(&sample, dtype.bits);
    packer.recipe.split = (uint8_t)(width >= 9 ? width - 8 : 0);
    packer.recipe.dictionary = recipe->mantissa > 0;
    better = packbuf_i_try_recipe(&packer, &sample, &ignored, &ignored);
    if (16 * better <= 15 * size) {
      recipe->split = packer.recipe.split;
      recipe->dictionary = packer.recipe.dictionary;
      size = better;
    }
  }
  recipe->lines = profile == 3 || 8 * lines >= count;
  recipe->fill = profile == 3 || 8 * filled >= count;
  recipe->small = 32 * (size + 16 * count) <= raw;
  return 16 * (size + 16 * count) <= 15 * raw;
}
