/* tests/blocks.c: blocks, packed and read. Blocks of every width, sign and kind of float are packed by every lane set,
 * in every mode, and come back the same, as a whole, in parts and one by one; the choice is held against a definition
 * written here; headers and payloads of any bytes are read between guard pages.
 * May use: internals.h, fence.h. Must not know: batches, views, the rest of the format. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "internals.h"
#include "fence.h"

static void verdict(const char *what) { verdict_on("", what); }

static unsigned below(unsigned limit) { return (unsigned)((random64() >> 32) % limit); }

static fence from, to, back;

/* ---- dtypes ---- */

typedef struct kind {
  const char *name;
  packbuf_dtype dtype;
} kind;

static const kind kinds[] = {
    {"int8", {PACKBUF_DTYPE_INT, 8, 1}},       {"uint8", {PACKBUF_DTYPE_UINT, 8, 1}},
    {"bool", {PACKBUF_DTYPE_BOOL, 8, 1}},      {"float8", {PACKBUF_DTYPE_FLOAT8_E5M2, 8, 1}},
    {"int16", {PACKBUF_DTYPE_INT, 16, 1}},     {"uint16", {PACKBUF_DTYPE_UINT, 16, 1}},
    {"float16", {PACKBUF_DTYPE_FLOAT, 16, 1}}, {"bfloat16", {PACKBUF_DTYPE_BFLOAT, 16, 1}},
    {"int32", {PACKBUF_DTYPE_INT, 32, 1}},     {"uint32", {PACKBUF_DTYPE_UINT, 32, 1}},
    {"float32", {PACKBUF_DTYPE_FLOAT, 32, 1}}, {"int64", {PACKBUF_DTYPE_INT, 64, 1}},
    {"uint64", {PACKBUF_DTYPE_UINT, 64, 1}},   {"float64", {PACKBUF_DTYPE_FLOAT, 64, 1}},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static uint64_t cut(uint64_t number, unsigned bits) { return number & packbuf_i_low_bits(bits); }

static uint64_t get(const uint8_t *units, unsigned bits, unsigned i) {
  return packbuf_i_unit_load(bits, units + (size_t)i * (bits / 8));
}

static void put(uint8_t *units, unsigned bits, unsigned i, uint64_t unit) {
  packbuf_i_unit_store(bits, units + (size_t)i * (bits / 8), unit);
}

/* ---- sorts of content ---- */

enum {
  CONSTANT,
  RAMP,
  STEEP,
  RUNS_24,
  RUNS_25,
  RAMPS,
  MASK,
  NARROW,
  SHIFTED,
  WITH_ZEROS,
  PADDED,
  PADDED_ONES,
  TOKENS,
  TOKENS_PADDED,
  FEW_TOPS,
  MANY_TOPS,
  SPARSE,
  ONE_HIGH,
  ALL_HIGH,
  NOISE,
  SIGNS,
  STEEP_RAMPS,
  BOTH_ZEROS,
  ONLY_ZEROS,
  ONES_AND_ZEROS,
  WRAPPING,
  ROW_IN_16,
  ROW_IN_17,
  ONE_ROW,
  SORTS
};

static void make_units(uint8_t *units, unsigned bits, unsigned count, unsigned sort) {
  const unsigned in_row = 1024 / bits, width = 1 + below(bits), low = below(bits);
  const uint64_t base = random64(), step = sort == STEEP ? random64() : below(7) - (uint64_t)3;
  for (unsigned i = 0; i < count; i++) {
    const uint64_t noise = random64();
    uint64_t unit = noise;
    switch (sort) {
      case CONSTANT: unit = base; break;
      case RAMP:
      case STEEP: unit = base + i * step; break;
      case RUNS_24: unit = base + i * 24u / count; break;
      case RUNS_25: unit = base + (i * 25u / count) * (i * 25u / count); break;
      case RAMPS: unit = i * 7u / count * 29u + i; break;
      case MASK: unit = noise >> 63; break;
      case NARROW: unit = base + cut(noise, width); break;
      case SHIFTED: unit = (cut(noise, bits - low) << low) + (cut(base, low + 1) >> 1); break;
      case WITH_ZEROS: unit = noise >> 62 ? cut(base, bits - 1) / 2 + cut(noise, bits / 2 - 1) + 1 : 0; break;
      case PADDED: unit = i / in_row % 5 < 2 ? cut(noise, width) : 7; break;
      case PADDED_ONES: unit = i / in_row % 3 == 1 ? 1 : 0; break;
      case TOKENS: unit = noise >> 60 < 7 ? cut(noise, bits / 2) : cut(noise, bits / 4); break;
      case TOKENS_PADDED:
        unit = i / in_row % 4 < 1 ? (noise >> 60 < 7 ? cut(noise, bits / 2) : cut(noise, bits / 4)) : 1000;
        break;
      case FEW_TOPS: unit = cut(noise, bits * 3 / 4) | (noise >> 60 < 3 ? noise >> 59 : 1) << (bits - 6); break;
      case MANY_TOPS: unit = cut(noise, bits * 2 / 3) | (noise >> 58) << (bits - 6); break;
      case SPARSE: unit = noise >> 57 == 0 ? noise : 0; break;
      case ONE_HIGH: unit = i == count / 2 ? cut(~(uint64_t)0, bits / 2) : cut(noise, 2); break;
      case ALL_HIGH: unit = cut(noise, bits / 2) | (uint64_t)1 << (bits / 2 - 1); break;
      case SIGNS: unit = (uint64_t)below(9) - 4; break;
      case STEEP_RAMPS:
        unit = base + (i * 5u / count) * (base >> 7) + (i * 5u / count & 1 ? step << (i * 5u / count * 7) : step) * i;
        break;
      case BOTH_ZEROS:
        unit = noise >> 62 < 2 ? noise >> 62 << (bits - 1) : cut(base, bits - 1) + cut(noise, width / 2 + 1);
        break;
      case ONLY_ZEROS: unit = noise >> 63 << (bits - 1); break;
      case ONES_AND_ZEROS:
        unit = noise >> 62 < 2 ? noise >> 62 << (bits - 1) : ~(uint64_t)(noise >> 62 & low & 1);
        break;
      case WRAPPING: unit = noise >> 60 == 0 ? 0 : noise >> 60 == 1 ? ~(uint64_t)0 : low % 4 + (noise & 1); break;
      case ROW_IN_16: unit = i / in_row % 16 == 3 ? 5 : cut(noise, width); break;
      case ROW_IN_17: unit = i / in_row % 17 == 3 ? 5 : cut(noise, width); break;
      case ONE_ROW: unit = i / in_row != 1 ? 7 : i % in_row < 12 ? noise : base * (i % in_row) + (base >> 5); break;
      default: break;
    }
    put(units, bits, i, unit);
  }
}

/* ---- one block, packed and read ---- */

static packbuf_i_recipe recipe_for(packbuf_dtype dtype, unsigned profile) {
  packbuf_i_recipe recipe;
  memset(&recipe, 0, sizeof recipe);
  recipe.bits = dtype.bits;
  recipe.profile = (uint8_t)profile;
  recipe.is_signed = dtype.code == PACKBUF_DTYPE_INT;
  recipe.is_float =
      dtype.code != PACKBUF_DTYPE_INT && dtype.code != PACKBUF_DTYPE_UINT && dtype.code != PACKBUF_DTYPE_BOOL;
  recipe.mantissa = (uint8_t)packbuf_i_mantissa_bits(dtype);
  return recipe;
}

/* What one recipe may allow, by number. */
enum { ALLOWED = 8 };
static void allow(packbuf_i_recipe *recipe, unsigned what, unsigned width) {
  recipe->lines = what & 1;
  recipe->fill = what >> 1 & 1;
  if (what & 4 && recipe->mantissa) recipe->dictionary = 1;
  if (what & 4 && !recipe->is_float && recipe->bits >= 32) recipe->split = (uint8_t)width;
}

static char described[200];

static const char *describe(const packbuf_i_block *block, unsigned bits, unsigned units) {
  snprintf(described, sizeof described, "%u units of %u bits, mode %u, base %llx, width %u, shift %u, extra %u", units,
           bits, block->mode, (unsigned long long)block->base, block->width, block->shift, block->extra);
  return described;
}

/* A block's payload at the end of `from`; units at `want`. */
static void read_back(const packbuf_i_lane_set *set, const packbuf_i_block *block, const uint8_t *payload,
                      uint32_t size, unsigned bits, unsigned units, const uint8_t *want) {
  const unsigned unit = bits / 8;
  uint8_t *out = back.end - units * unit;
  for (int stream = 0; stream < 2; stream++) {
    memset(back.start, 0xA5, (size_t)(back.end - back.start));
    expect(packbuf_i_block_units(set, block, payload, size, bits, units, 0, units, out, stream) &&
               memcmp(out, want, units * unit) == 0,
           "%s: %s", set->name, describe(block, bits, units));
    expect(out == back.start || out[-1] == 0xA5, "%s: written before: %s", set->name, describe(block, bits, units));
  }
  for (unsigned i = 0; i < 12; i++) {
    const unsigned first = below(units),
                   count = i % 3 ? below(units - first + 1) : below(units - first < 70 ? units - first + 1 : 70);
    out = i & 1 ? back.start : back.end - count * unit;
    expect(packbuf_i_block_units(set, block, payload, size, bits, units, first, count, out, i & 2) &&
               memcmp(out, want + first * unit, count * unit) == 0,
           "%s: %u from %u: %s", set->name, count, first, describe(block, bits, units));
  }
}

static void read_one_by_one(const packbuf_i_block *block, const uint8_t *payload, uint32_t size, unsigned bits,
                            unsigned units, const uint8_t *want, unsigned step) {
  for (unsigned i = 0; i < units; i += step) {
    uint64_t unit = ~get(want, bits, i);
    expect(packbuf_i_block_unit(block, payload, size, bits, units, i, &unit) && unit == get(want, bits, i),
           "unit %u: %s", i, describe(block, bits, units));
  }
}

/* ---- the definitions, straight from the spec ---- */

static unsigned bits_of(uint64_t number) {
  unsigned n = 0;
  while (number) number >>= 1, n++;
  return n;
}

static unsigned words_size(unsigned rows, unsigned width, unsigned T) { return 128 * ((rows * width + T - 1) / T); }

static unsigned up_to_64(unsigned size) { return (size + 63) / 64 * 64; }

static int set_in(const uint8_t *bitmap, unsigned i) { return bitmap[i / 8] >> (i % 8) & 1; }

/* A number of `bytes` bytes, little-endian. */
static uint64_t little(const uint8_t *p, unsigned bytes) {
  uint64_t number = 0;
  for (unsigned i = 0; i < bytes; i++) number |= (uint64_t)p[i] << (8 * i);
  return number;
}

/* Unit i of a sound block, bit by bit. */
static uint64_t define_unit(const packbuf_i_block *b, const uint8_t *payload, unsigned T, unsigned m, unsigned i) {
  const unsigned L = 1024 / T, mode = b->mode % 128;
  unsigned R = (m + L - 1) / L, row = i / L, lane = i % L, n = 0;
  uint64_t code = 0, low;
  if (b->mode == 1) {
    const unsigned v = b->shift % 16, s = b->shift / 16;
    const uint8_t *values = payload + 2 * b->extra, *steps = values + v * b->extra;
    uint64_t step = (uint64_t)(int64_t)(int8_t)b->width;
    unsigned line = 0;
    if (b->extra == 0) return cut(b->base + step * i, T);
    while (line + 1u < b->extra && little(payload + 2 * (line + 1), 2) <= i) line++;
    if (s > 0) step = little(steps + s * line, s);
    if (s > 0 && step >> (8 * s - 1)) step -= (uint64_t)1 << (8 * s - 1) << 1;
    return cut(b->base + little(values + v * line, v) + step * (i - little(payload + 2 * line, 2)), T);
  }
  if (b->mode >= 128) {
    const uint64_t dense = little(payload, 8);
    if (!(dense >> row & 1)) return little(payload + 8, T / 8);
    for (unsigned r = 0, before = row; r < 64; r++) {
      if (r < before && !(dense >> r & 1)) row--;
      n += (unsigned)(dense >> r & 1);
    }
    R = n;
    payload += 64;
  }
  if (mode == 0) return little(payload + (row * L + lane) * (T / 8), T / 8);
  low = mode == 5 ? 64 : 0;
  for (unsigned bit = 0; bit < b->width; bit++) {
    const unsigned at = row * b->width + bit;
    code |= (uint64_t)set_in(payload + low + 128 * (at / T) + lane * (T / 8), at % T) << bit;
  }
  if (mode == 2) return cut(b->base + (code << b->shift), T);
  if (mode == 3) return code == 0 ? 0 : code == 1 ? (uint64_t)1 << (T - 1) : cut(b->base + code - 2, T);
  if (mode == 5) {
    const uint64_t top = code >> b->shift;
    return cut(
        little(payload + (top <= b->extra ? 2 * top : 0), 2) << b->shift | (code & (((uint64_t)1 << b->shift) - 1)), T);
  }
  payload += words_size(R, b->width, T);
  if (!set_in(payload, row * L + lane)) return code;
  n = 0;
  for (unsigned k = 0; k < row * L + lane; k++) n += (unsigned)set_in(payload, k);
  return code | (uint64_t)payload[up_to_64(R * L / 8) + n] << b->width;
}

typedef struct answer {
  packbuf_i_block block;
  unsigned size;
} answer;

static void propose(answer *best, unsigned size, unsigned mode, uint64_t base, unsigned width, unsigned shift,
                    unsigned extra) {
  if (size >= best->size) return;
  best->size = size;
  best->block.mode = (uint8_t)mode;
  best->block.base = base;
  best->block.width = (uint8_t)width;
  best->block.shift = (uint8_t)shift;
  best->block.extra = (uint8_t)extra;
}

/* What n units in R rows are packed as; `more`: bytes before, `filled`: 128 or 0. */
static void define_rows(const packbuf_i_recipe *recipe, const uint64_t *u, unsigned n, unsigned R, unsigned plain,
                        unsigned more, unsigned filled, answer *best) {
  const unsigned T = recipe->bits;
  const uint64_t sign = recipe->is_signed ? (uint64_t)1 << (T - 1) : 0;
  uint64_t least = u[0], widest = 0, least_set = 0, largest = 0;
  unsigned shift = T - 1, width = 1, high = 0, tops = 0, zeros = 0, others = 0;
  static uint8_t top_seen[65536];
  for (unsigned i = 0; i < n; i++) {
    if ((u[i] ^ sign) < (least ^ sign)) least = u[i];
    zeros += cut(u[i], T - 1) == 0;
    if (cut(u[i], T - 1) != 0 && (others++ == 0 || u[i] < least_set)) least_set = u[i];
    if (u[i] > largest) largest = u[i];
    high += recipe->split && u[i] >> recipe->split;
    while (shift && cut(u[i], shift) != cut(u[0], shift)) shift--;
  }
  if (recipe->split && bits_of(largest) <= recipe->split + 8u && high > 0 && 8 * high <= 7 * n) {
    const unsigned size = words_size(R, recipe->split, T) + up_to_64(R * (1024 / T) / 8) + up_to_64(high);
    if (size <= plain) {
      propose(best, more + size, 4 + filled, 0, recipe->split, 0, 0);
      return;
    }
  }
  for (unsigned i = 0; i < n; i++)
    if (cut(u[i] - least, T) > widest) widest = cut(u[i] - least, T);
  width = bits_of(widest >> shift);
  if (widest == 0) width = 1, shift = 0;
  if (width < T) propose(best, more + words_size(R, width, T), 2 + filled, least, width, shift, 0);
  if (recipe->is_float && zeros > 0 && others > 0 && largest - least_set < packbuf_i_low_bits(T) - 1) {
    width = bits_of(largest - least_set + 2);
    if (width < T) propose(best, more + words_size(R, width, T), 3 + filled, least_set, width, 0, 0);
  }
  if (recipe->dictionary) {
    const unsigned m = recipe->mantissa;
    memset(top_seen, 0, sizeof top_seen);
    for (unsigned i = 0; i < n; i++) {
      tops += !top_seen[u[i] >> m];
      top_seen[u[i] >> m] = 1;
    }
    if (tops <= 32)
      propose(best, more + 64 + words_size(R, m + bits_of(tops - 1), T), 5 + filled, 0, m + bits_of(tops - 1), m,
              tops - 1);
  }
  propose(best, more + plain, 0 + filled, 0, 0, 0, 0);
}

/* The least of `bytes` 0, 1, 2, 4, 8 for which `number` is below 2^(8 bytes). */
static unsigned bytes_for(uint64_t number) {
  static const uint8_t sizes[] = {0, 1, 2, 4, 8};
  unsigned i = 0;
  while (bits_of(number) > 8u * sizes[i]) i++;
  return sizes[i];
}

/* The least of 1, 2, 4, 8 for which a step of T bits is a signed number of so many bytes. */
static unsigned step_bytes_for(uint64_t step, unsigned T) {
  const int64_t number = step >> (T - 1) ? -(int64_t)cut(~step, T) - 1 : (int64_t)step;
  unsigned bytes = 1;
  while (bytes < 8 && (number < -((int64_t)1 << (8 * bytes - 1)) || number >= (int64_t)1 << (8 * bytes - 1)))
    bytes *= 2;
  return bytes;
}

/* The lines that cover m units, when they are allowed, or one of step 0 is enough. */
static void define_lines(const packbuf_i_recipe *recipe, const uint64_t *u, unsigned m, answer *best) {
  const unsigned T = recipe->bits;
  uint64_t values[24] = {0}, steps[24] = {0}, least, largest = 0;
  unsigned lines = 0, s = 0, v, same = 1;
  for (unsigned i = 0; i < m; lines++) {
    const unsigned first = i;
    uint64_t step = 0;
    if (lines == 24) return;
    if (i + 1 < m && (i + 2 == m || cut(u[i + 1] - u[i], T) == cut(u[i + 2] - u[i + 1], T)))
      step = cut(u[i + 1] - u[i], T);
    while (i < m && u[i] == cut(u[first] + (i - first) * step, T)) i++;
    values[lines] = u[first];
    steps[lines] = step;
  }
  if (!recipe->lines && (lines > 1 || steps[0] != 0)) return;
  least = values[0];
  for (unsigned i = 0; i < lines; i++) {
    if (values[i] < least) least = values[i];
    if (values[i] > largest) largest = values[i];
    if (step_bytes_for(steps[i], T) > s) s = step_bytes_for(steps[i], T);
    same &= steps[i] == steps[0];
  }
  if (same && s == 1) s = 0;
  v = bytes_for(largest - least);
  if (lines == 1 && s == 0) propose(best, 0, 1, least, steps[0] & 255, 0, 0);
  else propose(best, up_to_64(lines * (2 + v + s)), 1, least, s ? 0 : steps[0] & 255, v + 16 * s, lines);
}

/* What a block of m units is packed as when it is chosen. */
static answer define_choice(const packbuf_i_recipe *recipe, const uint8_t *units, unsigned m) {
  static uint64_t u[8192], some[8192];
  const unsigned T = recipe->bits, L = 1024 / T, R = (m + L - 1) / L;
  unsigned n = 0, rows = 0, fill = 0;
  answer best;
  memset(&best, 0, sizeof best);
  best.size = UINT32_MAX;
  for (unsigned i = 0; i < m; i++) u[i] = get(units, T, i);
  define_lines(recipe, u, m, &best);
  if (best.size <= 64) return best;
  for (unsigned r = 0; r < R; r++) { /* fill: the first unit of a row of equal ones */
    fill = r * L;
    for (unsigned i = fill; fill < m && i < m && i < (r + 1) * L; i++)
      if (u[i] != u[fill]) fill = m;
    if (fill < m) break;
  }
  for (unsigned r = 0; r < R && fill < m; r++) {
    unsigned dense = 0;
    for (unsigned i = r * L; i < m && i < (r + 1) * L; i++) dense |= u[i] != u[fill];
    for (unsigned i = r * L; dense && i < m && i < (r + 1) * L; i++) some[n++] = u[i];
    rows += dense;
  }
  if (recipe->fill && rows > 0 && R - rows >= (R + 15) / 16)
    define_rows(recipe, some, n, rows, 128 * rows, 64, 128, &best);
  else define_rows(recipe, u, m, R, up_to_64(m * (T / 8)), 0, 0, &best);
  return best;
}

static void packed_as(const answer *want, const packbuf_i_block *block, uint32_t size, unsigned bits, unsigned count) {
  const packbuf_i_block *b = &want->block;
  expect(want->size == size && b->mode == block->mode && b->base == block->base && b->width == block->width &&
             b->shift == block->shift && b->extra == block->extra && block->place == 0,
         "mode %u, base %llx, width %u, shift %u, extra %u and %u bytes, not %u: %s", b->mode,
         (unsigned long long)b->base, b->width, b->shift, b->extra, want->size, (unsigned)size,
         describe(block, bits, count));
}

/* Packs a block with every lane set; the bytes are the same; and reads it. Returns its size. */
static uint32_t pack_and_read(const packbuf_i_recipe *recipe, const uint8_t *units, unsigned count,
                              packbuf_i_block *block) {
  static uint8_t kept[PACKBUF_I_PAYLOAD_ROOM];
  static packbuf_i_packer packer;
  const packbuf_i_lane_set *set;
  const answer chosen = define_choice(recipe, units, count);
  uint32_t size = 0;
  for (unsigned s = 0; (set = packbuf_i_lane_set_at(s)) != NULL; s++) {
    uint8_t *payload = to.end - PACKBUF_I_PAYLOAD_ROOM, *exact;
    packbuf_i_block other;
    uint32_t bytes;
    memset(payload, 0xC3, PACKBUF_I_PAYLOAD_ROOM);
    packbuf_i_packer_begin(&packer, set, recipe);
    bytes = packbuf_i_pack_block(&packer, units, count, &other, payload, s & 1 ? units : NULL, (int)(s & 2));
    if (s == 0) {
      memcpy(kept, payload, bytes);
      size = bytes;
      *block = other;
      expect(packbuf_i_block_unsound(block, recipe->bits) < 0, "unsound: %s", describe(block, recipe->bits, count));
      expect(size % 64 == 0 && size <= PACKBUF_I_BLOCK_BYTES && size <= packbuf_i_round_64(count * (recipe->bits / 8u)),
             "%u bytes: %s", (unsigned)size, describe(block, recipe->bits, count));
      expect(packbuf_i_block_size(block, recipe->bits, count) == size ||
                 packbuf_i_block_size(block, recipe->bits, count) == UINT32_MAX,
             "size: %s", describe(block, recipe->bits, count));
      packed_as(&chosen, block, size, recipe->bits, count);
    }
    expect(bytes == size && memcmp(&other, block, sizeof other) == 0 && memcmp(payload, kept, size) == 0,
           "%s packs other bytes: %s", set->name, describe(block, recipe->bits, count));
    exact = to.end - size;
    memmove(exact, payload, size);
    expect(packbuf_i_block_whole(block, exact, size, recipe->bits, count), "not whole: %s",
           describe(block, recipe->bits, count));
    read_back(set, block, exact, size, recipe->bits, count, units);
    for (unsigned i = below(5); s == 0 && i < count; i += 1 + below(count / 40 + 1))
      expect(define_unit(block, exact, recipe->bits, count, i) == get(units, recipe->bits, i),
             "unit %u as the spec says: %s", i, describe(block, recipe->bits, count));
    if (s == 0) read_one_by_one(block, exact, size, recipe->bits, count, units, count > 600 ? 37 : 1);
  }
  return size;
}

/* ---- round trips ---- */

static void round_trips(void) {
  for (unsigned k = 0; k < KINDS; k++)
    for (unsigned sort = 0; sort < SORTS; sort++) {
      const unsigned bits = kinds[k].dtype.bits, full = 65536 / bits, in_row = 1024 / bits;
      for (unsigned round = 0; round < ALLOWED * 4; round += TAP_STEP) {
        packbuf_i_recipe recipe = recipe_for(kinds[k].dtype, 1);
        packbuf_i_block block;
        const unsigned rows = below(64), count = round < ALLOWED ? full
                                                 : round & 1     ? 1 + below(full)
                                                                 : rows * in_row + 1 + below(in_row);
        uint8_t *units = from.end - count * (bits / 8);
        allow(&recipe, round % ALLOWED,
              round % 3 ? bits / 2 - 8 + (bits == 32 ? 0 : below(3)) : 1 + below(bits - 8 > 0 ? bits - 8 : 1));
        if (recipe.split > bits - 8) recipe.split = 1;
        make_units(units, bits, count, sort);
        pack_and_read(&recipe, units, count, &block);
      }
    }
  verdict("blocks of every dtype and sort, packed by every set to the same bytes, and read");
}

/* ---- each mode, forced ---- */

typedef struct forced {
  const char *what;
  unsigned code, bits, allowed, split, sort, count; /* count 0: full */
  unsigned mode, width, shift, extra;
} forced;

enum { LINES = 1, FILL = 2, MORE = 4 };
enum {
  A_FRAME,
  A_FRAME_SHIFTED,
  A_ZERO,
  A_SPLIT,
  A_DICTIONARY,
  A_RANDOM,
  A_CONSTANT,
  A_RAMP,
  A_STEEP_RAMP,
  LINES_24,
  LINES_25,
  TWO_LINES_ALONE,
  STEEP_LINES,
  A_ZEROS,
  ONLY_A_ZERO,
  ONES_BESIDE_ZEROS,
  HALF_HIGH,
  A_ROW,
  ROWS_OF = 100
};

/* Units that only one mode suits; ROWS_OF + x: every third row is x, the rest 7 (8 where that is no mantissa). */
static void make_forced(uint8_t *units, unsigned bits, unsigned count, unsigned sort) {
  for (unsigned i = 0; i < count; i++) {
    const uint64_t noise = random64();
    uint64_t unit = 7;
    if (sort < ROWS_OF || i / (1024 / bits) % 3 == 1) switch (sort % ROWS_OF) {
        case A_FRAME: unit = 1000 + noise % 13 + (i % 64 == 5 ? 3 : 0); break;
        case A_FRAME_SHIFTED: unit = 48 + (noise % 11 << 3); break;
        case A_ZERO: unit = i % 3 ? ((uint64_t)9 << (bits - 5)) + noise % 16 : 0; break;
        case A_SPLIT: unit = noise % 16 ? noise >> 40 & 1023 : noise >> 40 & 0x3FFFF; break;
        case A_DICTIONARY:
          unit = cut(noise, bits == 16 ? 7 : 23) | (noise >> 60 & 1 ? (uint64_t)1 << (bits - 2) : 0);
          break;
        case A_RANDOM: unit = noise; break;
        case A_CONSTANT: unit = 77; break;
        case A_RAMP: unit = (uint64_t)5 - i; break;
        case A_STEEP_RAMP: unit = 5 + i * 1000u; break;
        case LINES_24: unit = i * 24u / count * (i * 24u / count) * 3u; break;
        case LINES_25: unit = i * 25u / count * (i * 25u / count) * 3u; break;
        case STEEP_LINES: unit = 70000 + i * (i < count / 2 ? 300u : 299u); break;
        case A_ZEROS: unit = i % 3 ? ((uint64_t)9 << (bits - 5)) + noise % 16 : (uint64_t)(i % 2) << (bits - 1); break;
        case ONLY_A_ZERO: unit = noise >> 63 << (bits - 1); break;
        case ONES_BESIDE_ZEROS: unit = i % 3 == 0 ? noise >> 63 << (bits - 1) : ~(uint64_t)0; break;
        case HALF_HIGH: unit = 4096 + i * 4097u + (i % 3 ? 0 : 200000); break;
        case A_ROW: unit = i % 16 < 12 ? noise : i * ((uint64_t)3 << 60); break;
        default: unit = i < count / 2 ? i : 3 * count; break;
      }
    put(units, bits, i, unit);
  }
}

static const forced forces[] = {
    {"plain", 1, 64, 7, 56, A_RANDOM, 0, 0, 0, 0, 0},
    {"plain, 1 unit short", 1, 16, 7, 0, A_RANDOM, 4095, 0, 0, 0, 0},
    {"constant", 0, 64, 0, 0, A_CONSTANT, 0, 1, 0, 0, 0},
    {"constant, 1 unit", 0, 64, 0, 0, A_RANDOM, 1, 1, 0, 0, 0},
    {"ramp", 0, 64, LINES, 0, A_RAMP, 0, 1, 255, 0, 0},
    {"ramp, lines not allowed", 0, 64, 0, 0, A_RAMP, 0, 2, 10, 0, 0},
    {"steep ramp", 0, 32, LINES, 0, A_STEEP_RAMP, 0, 1, 0, 32, 1},
    {"steep ramp of 8 bits", 0, 8, LINES, 0, A_STEEP_RAMP, 0, 1, 232, 0, 0},
    {"2 lines", 1, 32, LINES, 0, TWO_LINES_ALONE, 0, 1, 0, 18, 2},
    {"2 steep lines", 1, 64, LINES, 0, STEEP_LINES, 0, 1, 0, 36, 2},
    {"2 units", 1, 32, 0, 0, TWO_LINES_ALONE, 2, 0, 0, 0, 0},
    {"2 units, lines allowed", 1, 32, LINES, 0, TWO_LINES_ALONE, 2, 1, 6, 0, 0},
    {"24 lines", 2, 32, LINES, 0, LINES_24, 0, 1, 0, 2, 24},
    {"25 lines", 0, 32, LINES, 0, LINES_25, 0, 2, 11, 0, 0},
    {"24 lines, 700 units", 1, 16, LINES, 0, LINES_24, 700, 1, 0, 2, 24},
    {"24 lines, no more than a frame", 1, 16, LINES, 0, LINES_24, 72, 1, 0, 2, 24},
    {"frame", 0, 64, 7, 20, A_FRAME, 0, 2, 4, 0, 0},
    {"frame, part of a row", 0, 32, 7, 20, A_FRAME, 45, 2, 4, 0, 0},
    {"frame with shift", 1, 32, 7, 12, A_FRAME_SHIFTED, 0, 2, 4, 3, 0},
    {"zero of 8 bits", 10, 8, 7, 0, A_ZERO, 0, 3, 5, 0, 0},
    {"zero of 16 bits", 2, 16, 0, 0, A_ZERO, 0, 3, 5, 0, 0},
    {"zero of 32 bits", 2, 32, 7, 0, A_ZERO, 0, 3, 5, 0, 0},
    {"zero of 64 bits", 2, 64, 7, 0, A_ZERO, 777, 3, 5, 0, 0},
    {"both zeros of 32 bits", 2, 32, 2, 0, A_ZEROS, 0, 3, 30, 0, 0},
    {"zeros alone", 2, 32, 2, 0, ONLY_A_ZERO, 0, 2, 1, 31, 0},
    {"all ones beside zeros", 4, 16, 2, 0, ONES_BESIDE_ZEROS, 0, 3, 2, 0, 0},
    {"all ones beside zeros, 64 bits", 2, 64, 2, 0, ONES_BESIDE_ZEROS, 0, 3, 2, 0, 0},
    {"no zero of integers", 1, 64, 0, 0, A_ZERO, 0, 2, 63, 0, 0},
    {"split of 32 bits", 0, 32, 7, 10, A_SPLIT, 0, 4, 10, 0, 0},
    {"split of 64 bits", 1, 64, 7, 10, A_SPLIT, 0, 4, 10, 0, 0},
    {"split, rows and a part", 1, 64, 7, 10, A_SPLIT, 701, 4, 10, 0, 0},
    {"a row where split takes more than plain", 0, 32, MORE, 12, HALF_HIGH, 24, 2, 19, 0, 0},
    {"dictionary of 16 bits", 4, 16, 7, 0, A_DICTIONARY, 0, 5, 8, 7, 1},
    {"dictionary of 32 bits", 2, 32, 7, 0, A_DICTIONARY, 0, 5, 24, 23, 1},
    {"dictionary, part of a row", 2, 32, 7, 0, A_DICTIONARY, 1029, 5, 24, 23, 1},
    {"filled plain", 1, 32, 7, 24, ROWS_OF + A_RANDOM, 0, 128, 0, 0, 0},
    {"filled plain, part of a row", 1, 64, 2, 0, ROWS_OF + A_RANDOM, 16 * 61 + 3, 128, 0, 0, 0},
    {"filled plain, one row of lines", 1, 64, 3, 0, ROWS_OF + A_ROW, 16 * 3, 128, 0, 0, 0},
    {"filled frame", 0, 64, 2, 0, ROWS_OF + A_FRAME, 0, 130, 4, 0, 0},
    {"filled frame, part of a row", 0, 8, 2, 0, ROWS_OF + A_FRAME, 128 * 61 + 3, 130, 4, 0, 0},
    {"filled frame, dense rows equal", 0, 64, 2, 0, ROWS_OF + A_CONSTANT, 0, 130, 1, 0, 0},
    {"filled zero", 2, 64, 7, 0, ROWS_OF + A_ZERO, 0, 131, 5, 0, 0},
    {"filled zero, part of a row", 12, 8, 7, 0, ROWS_OF + A_ZERO, 128 * 61 + 77, 131, 5, 0, 0},
    {"filled split", 0, 64, 7, 10, ROWS_OF + A_SPLIT, 0, 132, 10, 0, 0},
    {"filled split, part of a row", 0, 32, 7, 10, ROWS_OF + A_SPLIT, 32 * 61 + 9, 132, 10, 0, 0},
    {"filled dictionary", 2, 32, 7, 0, ROWS_OF + A_DICTIONARY, 0, 133, 24, 23, 1},
    {"filled dictionary, part of a row", 4, 16, 7, 0, ROWS_OF + A_DICTIONARY, 64 * 61 + 9, 133, 8, 7, 1},
};
enum { FORCES = sizeof forces / sizeof forces[0] };

/* Packs a forced block at the end of `from`; its payload lies at the end of `to`. */
static uint32_t pack_forced(const forced *f, packbuf_i_block *block, unsigned *count) {
  const packbuf_dtype dtype = {(uint8_t)f->code, (uint8_t)f->bits, 1};
  packbuf_i_recipe recipe = recipe_for(dtype, 1);
  uint8_t *units;
  *count = f->count ? f->count : 65536 / f->bits;
  units = from.end - *count * (f->bits / 8);
  allow(&recipe, f->allowed, f->split);
  make_forced(units, f->bits, *count, f->sort);
  return pack_and_read(&recipe, units, *count, block);
}

static void every_mode(void) {
  for (unsigned i = 0; i < FORCES; i++) {
    packbuf_i_block block;
    unsigned count;
    pack_forced(&forces[i], &block, &count);
    expect(block.mode == forces[i].mode && block.width == forces[i].width && block.shift == forces[i].shift &&
               block.extra == forces[i].extra,
           "%s: %s", forces[i].what, describe(&block, forces[i].bits, count));
  }
  verdict("every mode, of full and of short blocks");
}

/* Lines with values of v bytes and steps of s, that begin anywhere. */
static void read_lines(unsigned T, unsigned v, unsigned s, unsigned lines, unsigned m) {
  static uint8_t want[8192];
  const packbuf_i_lane_set *set;
  const unsigned size = up_to_64(lines * (2 + v + s));
  uint8_t *payload = to.end - size;
  packbuf_i_block b;
  memset(&b, 0, sizeof b);
  memset(payload, 0, size);
  b.mode = 1;
  b.base = cut(random64(), T);
  b.width = (uint8_t)(s ? 0 : random64());
  b.shift = (uint8_t)(v + 16 * s);
  b.extra = (uint8_t)lines;
  for (unsigned i = 1; i < lines; i++)
    packbuf_i_store16(payload + 2 * i,
                      (uint16_t)(i * m / lines - (i * m / lines > (i - 1) * m / lines + 1 ? below(2) : 0)));
  for (unsigned i = 2 * lines; i < lines * (2 + v + s); i++) payload[i] = (uint8_t)(random64() >> 33);
  for (unsigned i = 0; i < m; i++) put(want, T, i, define_unit(&b, payload, T, m, i));
  expect(packbuf_i_block_unsound(&b, T) < 0 && packbuf_i_block_size(&b, T, m) == size, "%u bytes: %s", size,
         describe(&b, T, m));
  expect(packbuf_i_block_whole(&b, payload, size, T, m), "not whole: %s", describe(&b, T, m));
  for (unsigned i = 0; (set = packbuf_i_lane_set_at(i)) != NULL; i++) read_back(set, &b, payload, size, T, m, want);
  read_one_by_one(&b, payload, size, T, m, want, m > 300 ? 7 : 1);
  if (lines == 1) return;
  packbuf_i_store16(payload + 2 * (lines - 1), (uint16_t)m);
  expect(!packbuf_i_block_whole(&b, payload, size, T, m), "a line that begins at the end: %s", describe(&b, T, m));
  packbuf_i_store16(payload + 2 * (lines - 1), (uint16_t)little(payload + 2 * (lines - 2), 2));
  expect(!packbuf_i_block_whole(&b, payload, size, T, m), "two lines that begin at one unit: %s", describe(&b, T, m));
}

static void every_line(void) {
  static const uint8_t sizes[] = {0, 1, 2, 4, 8}, counts[] = {1, 2, 24, 25, 63, 64};
  for (unsigned T = 8; T <= 64; T *= 2)
    for (unsigned v = 0; v < 5; v++)
      for (unsigned s = 0; s < 5; s++)
        for (unsigned c = 0; c < 6 && sizes[v] <= T / 8 && sizes[s] <= T / 8; c++) {
          read_lines(T, sizes[v], sizes[s], counts[c], 65536 / T);
          read_lines(T, sizes[v], sizes[s], counts[c], counts[c] + below(200));
        }
  verdict("lines of every size of values and steps, up to 64 of them, read");
}

static void every_part(void) {
  for (unsigned i = 0; i < FORCES; i++) {
    const unsigned bits = forces[i].bits, counts[] = {3, 1024 / bits + 1, 3 * 1024 / bits, 3 * 1024 / bits + 5};
    for (unsigned c = 0; c < 4; c++) {
      forced one = forces[i];
      packbuf_i_block block;
      unsigned count;
      uint32_t size;
      one.count = counts[c];
      size = pack_forced(&one, &block, &count);
      for (unsigned first = 0; first < count; first += TAP_STEP)
        for (unsigned some = 0; some <= count - first; some += bits == 8 ? 3 : 1) {
          uint8_t *out = back.end - some * (bits / 8);
          expect(packbuf_i_block_units(packbuf_i_lane_set_best(), &block, to.end - size, size, bits, count, first, some,
                                       out, 0) &&
                     memcmp(out, from.end - (count - first) * (bits / 8), some * (bits / 8)) == 0,
                 "%u from %u: %s", some, first, describe(&block, bits, count));
        }
      expect(!packbuf_i_block_units(packbuf_i_lane_set_best(), &block, to.end - size, size, bits, count, 1, count,
                                    back.start, 0) &&
                 !packbuf_i_block_units(packbuf_i_lane_set_best(), &block, to.end - size, size, bits, count, count + 1,
                                        0, back.start, 0),
             "beyond the end: %s", describe(&block, bits, count));
    }
  }
  verdict("every part of short blocks");
}

/* ---- what is wrong is refused ---- */

/* Whether byte `at` of a payload may hold anything for all that verification asks. */
static int not_looked_at(const packbuf_i_block *b, const uint8_t *payload, unsigned T, unsigned m, unsigned at) {
  const unsigned mode = b->mode % 128, L = 1024 / T;
  unsigned R = (m + L - 1) / L;
  if (b->mode == 1) return at >= 2u * b->extra && at < b->extra * (2u + b->shift % 16 + b->shift / 16);
  if (b->mode == 0) return at < m * (T / 8);
  if (b->mode >= 128) {
    const uint64_t dense = little(payload, 8);
    if (at < 64) return at >= 8 && at < 8 + T / 8;
    R = 0;
    for (unsigned r = 0; r < 64; r++) R += (unsigned)(dense >> r & 1);
    at -= 64;
    payload += 64;
  }
  if (mode == 5) return at >= 64;
  if (mode == 4) {
    unsigned n = 0, start = words_size(R, b->width, T) + up_to_64(R * L / 8);
    for (unsigned i = 0; i < R * L; i++) n += (unsigned)set_in(payload + words_size(R, b->width, T), i);
    return at < words_size(R, b->width, T) || (at >= start && at < start + n);
  }
  return 1;
}

static void wrong_bytes(void) {
  static uint8_t copy[PACKBUF_I_BLOCK_BYTES];
  unsigned long refused = 0;
  for (unsigned i = 0; i < FORCES; i++) {
    packbuf_i_block block;
    unsigned count;
    const uint32_t size = pack_forced(&forces[i], &block, &count);
    const unsigned bits = forces[i].bits, mode = block.mode % 128;
    uint8_t *payload = to.end - size;
    for (unsigned at = 0; at < size; at += at > 700 && at + 70 < size ? 5u + TAP_STEP : 1u) {
      const uint8_t kept = payload[at];
      const int loose = not_looked_at(&block, payload, bits, count, at);
      const int dense = block.mode >= 128 && at < 8, firsts = mode == 1 && at < block.extra * 2u,
                tops = mode == 5 && !loose && !dense;
      const unsigned skip = block.mode >= 128 ? 64 : 0,
                     rows = skip ? packbuf_i_bits_set(little(payload, 8)) : (count * bits / 8 + 127) / 128;
      const int in_bitmap = mode == 4 && at >= skip + words_size(rows, block.width, bits) &&
                            at < skip + words_size(rows, block.width, bits) + rows * (128 / bits);
      for (unsigned bit = 0; bit < 8; bit++) {
        int whole;
        payload[at] = (uint8_t)(kept ^ 1u << bit);
        whole = packbuf_i_block_whole(&block, payload, size, bits, count);
        if (loose) expect(whole, "byte %u, bit %u is not to be looked at: %s", at, bit, describe(&block, bits, count));
        else if (!firsts && !tops && !in_bitmap && (!dense || mode == 0))
          expect(!whole, "byte %u, bit %u is wrong: %s", at, bit, describe(&block, bits, count));
        refused += !whole;
      }
      payload[at] = kept;
    }
    memcpy(copy, payload, size);
    for (unsigned other = 0; other <= size + 64 && other <= PACKBUF_I_PAYLOAD_ROOM; other += 32) {
      memset(to.end - other, 0, other);
      memcpy(to.end - other, copy, other < size ? other : size);
      expect(packbuf_i_block_whole(&block, to.end - other, other, bits, count) == (other == size),
             "%u bytes, not %u: %s", other, (unsigned)size, describe(&block, bits, count));
    }
  }
  expect(refused > 1000, "%lu refused", refused);
  verdict("payloads with a wrong bit are refused where the spec looks at it");
}

/* The first wrong field of a header, field by field as the spec's table has them. */
static int define_unsound(const packbuf_i_block *b, unsigned T) {
  const unsigned mode = b->mode % 128, width = b->width, shift = b->shift, extra = b->extra, v = shift % 16,
                 s = shift / 16;
  const int fits = cut(b->base, T) == b->base, has_base = mode == 1 || mode == 2 || mode == 3;
  unsigned most = T;
  if (mode > 5 || b->mode == 129 || (mode == 5 && T != 16 && T != 32)) return 12;
  if (has_base ? !fits : b->base != 0) return 0;
  if (mode == 1) {
    if (extra > 0 && s != 0 && width != 0) return 13;
    if (extra == 0 ? shift != 0
                   : v * 8 > T || s * 8 > T || (v != 0 && v != 1 && v != 2 && v != 4 && v != 8) ||
                         (s != 0 && s != 1 && s != 2 && s != 4 && s != 8))
      return 14;
    return extra > 64 ? 15 : -1;
  }
  if (mode == 4) most = T - 8;
  if (mode == 0 && width != 0) return 13;
  if (mode >= 2 && (width < 1 || width > most)) return 13;
  if (mode == 5 && width != (shift + bits_of(extra) ? shift + bits_of(extra) : 1)) return 13;
  if (mode == 2 ? width + shift > T : mode == 5 ? shift >= T || T - shift > 16 : shift != 0) return 14;
  if (extra > (mode == 5 ? 31 : 0)) return 15;
  return -1;
}

static void headers(void) {
  unsigned long sound = 0;
  for (unsigned T = 8; T <= 64; T *= 2)
    for (unsigned mode = 0; mode < 256; mode += mode == 6 ? 121 : mode == 134 ? 121 : 1)
      for (unsigned width = 0; width < 256; width += width < 70 ? TAP_STEP : 37)
        for (unsigned shift = 0; shift < 256; shift += mode == 1 || shift < 3 || (shift > 30 && shift < 34) ? 1
                                                       : shift < 70                                         ? 3
                                                                                                            : 61)
          for (unsigned extra = 0; extra < 256;
               extra += extra < 2 || (extra > 29 && extra < 34) || (extra > 62 && extra < 66) ? 1
                        : extra < 25                                                          ? 7
                        : extra < 60                                                          ? 5
                                                                                              : 61)
            for (unsigned base = 0; base < 3; base++) {
              packbuf_i_block b, again;
              uint8_t header[16];
              int want;
              b.base = base == 2 ? ~(uint64_t)0 : base * packbuf_i_low_bits(T);
              b.place = width * 0x01020304u;
              b.mode = (uint8_t)mode;
              b.width = (uint8_t)width;
              b.shift = (uint8_t)shift;
              b.extra = (uint8_t)extra;
              want = define_unsound(&b, T);
              sound += want < 0;
              expect(packbuf_i_block_unsound(&b, T) == want, "%d, not %d: %s", packbuf_i_block_unsound(&b, T), want,
                     describe(&b, T, 100));
              if (extra || base) continue;
              packbuf_i_block_store(&b, header);
              packbuf_i_block_load(&again, header);
              expect(little(header, 8) == b.base && little(header + 8, 4) == b.place && header[12] == mode &&
                         header[13] == width && header[14] == shift && header[15] == extra && again.base == b.base &&
                         again.place == b.place && again.mode == mode && again.width == width && again.shift == shift &&
                         again.extra == extra,
                     "stored and loaded: %s", describe(&b, T, 100));
            }
  expect(sound > 1000, "%lu sound", sound);
  verdict("headers: what is sound, stored and loaded");
}

/* ---- any bytes ---- */

static void random_header(packbuf_i_block *b, unsigned bits) {
  static const uint8_t modes[] = {0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 128, 130, 131, 132, 132, 133, 133, 129, 6, 255};
  const unsigned tries = random64() >> 61 == 0 ? 1 : 1000;
  for (unsigned i = 0; i < tries; i++) {
    b->mode = modes[below(sizeof modes)];
    b->base = b->mode % 128 == 2 || b->mode % 128 == 3 || b->mode == 1 ? cut(random64(), bits) : 0;
    b->width = (uint8_t)(b->mode % 128 == 0 ? 0 : below(bits + 1));
    b->shift = (uint8_t)(b->mode % 128 == 2 || b->mode % 128 == 5 ? below(bits) : 0);
    b->extra = (uint8_t)(b->mode == 1 ? below(66) * below(2) : b->mode % 128 == 5 ? below(33) : 0);
    if (b->mode == 1 && b->extra) b->shift = (uint8_t)((1u << below(5)) / 2 + (1u << below(5)) / 2 * 16);
    if (b->mode == 1 && b->shift / 16) b->width = 0;
    if (b->mode % 128 == 5) b->width = (uint8_t)(b->shift + bits_of(b->extra));
    if (packbuf_i_block_unsound(b, bits) < 0) return;
  }
}

/* Random bytes for a header that have a chance to be taken for its payload. */
static uint32_t random_payload(const packbuf_i_block *b, uint8_t *p, unsigned bits, unsigned units) {
  uint32_t size = packbuf_i_block_size(b, bits, units), rows = (units + 1024 / bits - 1) / (1024 / bits), more = 0;
  const unsigned sparse = below(4);
  for (unsigned i = 0; i + 8 <= PACKBUF_I_PAYLOAD_ROOM; i += 8) {
    uint64_t word = random64();
    for (unsigned k = 0; k < sparse; k++) word &= random64();
    memcpy(p + i, &word, 8);
  }
  if (b->mode >= 128 && below(8)) {
    const uint64_t dense = little(p, 8) & packbuf_i_low_bits(rows);
    packbuf_i_store64(p, dense);
    rows = packbuf_i_bits_set(dense);
    more = 64;
  }
  if (b->mode == 1) {
    unsigned first = 0;
    for (unsigned i = 0; i < b->extra; i++, first += 1 + below(units / b->extra + 1))
      packbuf_i_store16(p + 2 * i, (uint16_t)first);
  }
  if (size == UINT32_MAX)
    size = more + (b->mode % 128 ? words_size(rows, b->width, bits) : rows * 128) + (b->mode % 128 == 5 ? 64 : 0);
  if (b->mode % 128 == 4) size += up_to_64(rows * (1024 / bits) / 8) + below(rows * (1024 / bits) / 64 + 1) * 64;
  if (below(16) == 0) size = below(PACKBUF_I_PAYLOAD_ROOM);
  return size < PACKBUF_I_PAYLOAD_ROOM ? size : PACKBUF_I_PAYLOAD_ROOM;
}

static void any_bytes(void) {
  static uint8_t bytes[PACKBUF_I_PAYLOAD_ROOM];
  unsigned long taken[6] = {0}, whole = 0;
  for (unsigned round = 0; round < 100000 / TAP_STEP; round++) {
    const unsigned bits = 8u << below(4), full = 65536 / bits, units = below(3) ? 1 + below(full) : full;
    const unsigned first = below(units),
                   count = 1 + below(below(4) ? (units - first < 200 ? units - first : 200) : units - first),
                   unit = bits / 8;
    const packbuf_i_lane_set *set = packbuf_i_lane_set_at(round % 6);
    packbuf_i_block b;
    uint32_t size;
    uint8_t *payload, *out = round & 1 ? back.end - count * unit : back.start;
    int read;
    if (!set) set = packbuf_i_lane_set_best();
    memset(&b, 0, sizeof b);
    random_header(&b, bits);
    size = random_payload(&b, bytes, bits, units);
    payload = round & 2 ? to.end - size : to.start;
    memcpy(payload, bytes, size);
    read = packbuf_i_block_units(set, &b, payload, size, bits, units, first, count, out, (int)(round & 4));
    whole += (unsigned long)packbuf_i_block_whole(&b, payload, size, bits, units);
    if (read) taken[b.mode % 128]++;
    for (unsigned i = 0; i < 4; i++) {
      const unsigned at = below(count);
      uint64_t one = 0;
      const int got = packbuf_i_block_unit(&b, payload, size, bits, units, first + at, &one);
      if (read)
        expect(got && one == get(out, bits, at) && one == define_unit(&b, payload, bits, units, first + at),
               "unit %u, %d: %s", first + at, got, describe(&b, bits, units));
      else if (packbuf_i_block_unsound(&b, bits) >= 0)
        expect(!got, "read though unsound: %s", describe(&b, bits, units));
    }
  }
  for (unsigned mode = 0; mode < 6; mode++)
    expect(taken[mode] > 500 / TAP_STEP, "mode %u: %lu read", mode, taken[mode]);
  expect(whole > 1000 / TAP_STEP, "%lu whole", whole);
  tap_note("read: %lu plain, %lu line, %lu frame, %lu zero, %lu split, %lu dictionary; %lu whole", taken[0], taken[1],
           taken[2], taken[3], taken[4], taken[5], whole);
  verdict("random headers and payloads between guard pages: one by one as together");
}

/* ---- buffers: recipes, and blocks packed as the one before ---- */

/* What a block that follows `before` in a stripe is packed as; size 0: it is chosen. */
static answer define_next(const packbuf_i_recipe *recipe, const packbuf_i_block *before, const uint8_t *units,
                          unsigned count) {
  const unsigned T = recipe->bits;
  uint64_t largest = 0, all = 0;
  unsigned high = 0;
  answer next;
  memset(&next, 0, sizeof next);
  if (recipe->profile == 3 || recipe->lines || recipe->fill || count != 65536 / T) return next;
  for (unsigned i = 0; i < count; i++) {
    const uint64_t unit = get(units, T, i);
    if (unit > largest) largest = unit;
    high += recipe->split && unit >> recipe->split;
    all |= cut(unit - before->base, T);
  }
  if (recipe->split) {
    if (bits_of(largest) > recipe->split + 8u || high == 0 || 8 * high > 7 * count) return next;
    next.block.mode = 4;
    next.block.width = recipe->split;
    next.size = words_size(64, recipe->split, T) + up_to_64(count / 8) + up_to_64(high);
  } else if (before->mode == 2 && before->shift == 0 && bits_of(all) <= before->width &&
             bits_of(all) + 2 > before->width) {
    next.block = *before;
    next.size = words_size(64, before->width, T);
  }
  return next;
}

static packbuf_i_recipe define_recipe(packbuf_dtype dtype, unsigned profile, const uint8_t *const *blocks,
                                      const unsigned *units, unsigned count, int *packed) {
  packbuf_i_recipe recipe = recipe_for(dtype, profile), wider;
  unsigned lines = 0, filled = 0, size = 0, better = 0, plain = 0;
  uint64_t largest = 0;
  recipe.lines = recipe.fill = 1;
  wider = recipe;
  for (unsigned i = 0; i < count; i++) {
    const answer a = define_choice(&recipe, blocks[i], units[i]);
    size += a.size;
    lines += a.block.mode == 1;
    filled += a.block.mode >= 128;
    plain += units[i] * (dtype.bits / 8u);
    for (unsigned k = 0; k < units[i]; k++)
      if (get(blocks[i], dtype.bits, k) > largest) largest = get(blocks[i], dtype.bits, k);
  }
  if ((dtype.code == 0 || dtype.code == 1) && dtype.bits >= 32 && bits_of(largest) >= 9)
    wider.split = (uint8_t)(bits_of(largest) - 8);
  if (profile == 3 && (dtype.code == 2 || dtype.code == 4) && dtype.bits <= 32) wider.dictionary = 1;
  if (profile != 2 && (wider.split || wider.dictionary)) {
    for (unsigned i = 0; i < count; i++) better += define_choice(&wider, blocks[i], units[i]).size;
    if (16 * better <= 15 * size) {
      recipe.split = wider.split;
      recipe.dictionary = wider.dictionary;
      size = better;
    }
  }
  recipe.lines = profile == 3 || 8 * lines >= count;
  recipe.fill = profile == 3 || 8 * filled >= count;
  recipe.small = 32 * (size + 16 * count) <= plain;
  *packed = 16 * (size + 16 * count) <= 15 * plain;
  return recipe;
}

enum { BUFFER_BLOCKS = 80 };

/* Blocks of much the same sort, so that most go on as the one before, and some that break in. */
static void make_buffer(uint8_t *buffer, unsigned bits, unsigned sort) {
  for (unsigned b = 0; b < BUFFER_BLOCKS; b++) {
    const unsigned full = 65536 / bits;
    uint8_t *units = buffer + b * 8192u;
    if (below(9) == 0) make_units(units, bits, full, below(SORTS));
    else if (sort < 2) make_forced(units, bits, full, sort == 0 ? A_FRAME : A_SPLIT);
    else if (sort == 2) make_forced(units, bits, full, below(8) ? A_DICTIONARY : A_FRAME);
    else if (sort < 3 + ROWS_OF / 25)
      make_forced(units, bits, full, ROWS_OF * below(2) + (sort & 1 ? A_FRAME : A_ZERO));
    else make_units(units, bits, full, sort - 7);
    if (below(6) == 0) make_units(units, bits, full, MASK);
  }
}

static void buffers(void) {
  static uint8_t buffer[BUFFER_BLOCKS * 8192], payload[PACKBUF_I_PAYLOAD_ROOM];
  static packbuf_i_packer packer;
  unsigned long followed[2] = {0}, packed_ones = 0;
  for (unsigned round = 0; round < KINDS * (SORTS + 7) * 3; round += TAP_STEP) {
    const kind *k = &kinds[(round * 5 + round / KINDS) % KINDS];
    const unsigned bits = k->dtype.bits, profile = 1 + round / KINDS % 3, full = 65536 / bits,
                   last = below(2) ? full : 1 + below(full);
    const uint8_t *sample[16];
    unsigned units[16], count = 1 + below(16);
    packbuf_i_recipe recipe, want;
    int packed = 0, want_packed;
    make_buffer(buffer, bits, round / KINDS / 3);
    for (unsigned i = 0; i < count; i++) {
      sample[i] = buffer + below(BUFFER_BLOCKS) * 8192;
      units[i] = i + 1 == count ? last : full;
    }
    want = define_recipe(k->dtype, profile, sample, units, count, &want_packed);
    for (unsigned s = 0; packbuf_i_lane_set_at(s); s++) {
      packed = packbuf_i_make_recipe(packbuf_i_lane_set_at(s), k->dtype, profile, sample, units, count, &recipe);
      expect(
          packed == want_packed && memcmp(&recipe, &want, sizeof recipe) == 0,
          "recipe of %s, profile %u: %d, small %u, lines %u, fill %u, split %u, dictionary %u, not %d, %u, %u, %u, %u, %u",
          k->name, profile, packed, recipe.small, recipe.lines, recipe.fill, recipe.split, recipe.dictionary,
          want_packed, want.small, want.lines, want.fill, want.split, want.dictionary);
    }
    packed_ones += (unsigned long)packed;
    packbuf_i_packer_begin(
        &packer, packbuf_i_lane_set_at(round % 6) ? packbuf_i_lane_set_at(round % 6) : packbuf_i_lane_set_best(),
        &recipe);
    for (unsigned b = 0; b < BUFFER_BLOCKS; b++) {
      const uint8_t *at = buffer + b * 8192u, *ahead = b + 1 < BUFFER_BLOCKS ? at + 8192 : NULL;
      const unsigned n = b + 1 < BUFFER_BLOCKS ? full : last;
      packbuf_i_block block;
      answer a;
      uint32_t size;
      memset(&a, 0, sizeof a);
      if (b % PACKBUF_I_STRIPE == 0) packbuf_i_packer_stripe(&packer);
      else a = define_next(&recipe, &packer.before, at, n);
      if (a.size) followed[a.block.mode == 4]++;
      else a = define_choice(&recipe, at, n);
      size = packbuf_i_pack_block(&packer, at, n, &block, payload, ahead, 0);
      packed_as(&a, &block, size, bits, n);
      expect(packbuf_i_block_whole(&block, payload, size, bits, n), "not whole: %s", describe(&block, bits, n));
      expect(packbuf_i_block_units(packer.set, &block, payload, size, bits, n, 0, n, back.start, 0) &&
                 memcmp(back.start, at, n * (bits / 8)) == 0,
             "block %u: %s", b, describe(&block, bits, n));
    }
  }
  expect(followed[0] > 1000 / TAP_STEP && (TAP_STEP > 1 || followed[1] > 140), "%lu and %lu", followed[0], followed[1]);
  tap_note("%lu buffers to be packed; %lu frames and %lu splits as the block before", packed_ones, followed[0],
           followed[1]);
  verdict("recipes, stripes and blocks packed as the one before");
}

/* ---- integers of another width ---- */

static int fits(uint64_t unit, unsigned bits, int is_signed, unsigned out_bits, int out_signed, uint64_t *out) {
  const int negative = is_signed && unit >> (bits - 1) & 1;
  const uint64_t wide = negative ? unit | ~packbuf_i_low_bits(bits) : unit;
  *out = cut(wide, out_bits);
  if (negative) return out_signed && wide >= (uint64_t)0 - ((uint64_t)1 << (out_bits - 1));
  return wide <= packbuf_i_low_bits(out_bits - (out_signed ? 1u : 0u));
}

static void conversions(void) {
  static uint8_t in[8 * 3000 + 8], out[8 * 3000 + 8];
  for (unsigned t = 0; t < 64; t++) {
    const unsigned bits = 8u << (t & 3), out_bits = 8u << (t >> 2 & 3), from_odd = t & 16 ? 1 : 0;
    for (unsigned signs = 0; signs < 4; signs++) {
      const int s = signs & 1, os = signs >> 1 & 1;
      for (unsigned e = 0; e < 260; e++) {
        const uint64_t unit =
            cut(((e & 1 ? (uint64_t)0 : ~(uint64_t)0) ^ (e >= 2 ? (uint64_t)1 << (e / 4) % 64 : 0)) + (e & 2 ? 1 : 0),
                bits);
        const unsigned count = e & 1 ? 1 + e : 1000 + e, at = below(count);
        uint64_t want, zero;
        const int can = fits(unit, bits, s, out_bits, os, &want);
        memset(in, 0, sizeof in);
        memset(out, 0x5A, sizeof out);
        put(in + from_odd, bits, at, unit);
        expect(packbuf_i_convert_units(in + from_odd, bits, s, count, out + from_odd, out_bits, os) == can,
               "%llx of %u bits, signed %d, to %u, signed %d", (unsigned long long)unit, bits, s, out_bits, os);
        zero = get(out + from_odd, out_bits, at ? 0 : count - 1);
        if (can)
          expect(get(out + from_odd, out_bits, at) == want && (count == 1 || zero == 0), "%llx of %u bits became %llx",
                 (unsigned long long)unit, bits, (unsigned long long)get(out + from_odd, out_bits, at));
        expect(out[from_odd + count * (out_bits / 8)] == 0x5A, "written beyond");
      }
    }
  }
  verdict("integers as those of another width and sign, at their limits");
}

int main(void) {
  from = fence_of(8192);
  to = fence_of(PACKBUF_I_PAYLOAD_ROOM);
  back = fence_of(8192 + 64);
  for (unsigned i = 0; packbuf_i_lane_set_at(i); i++) tap_note("lane set %s", packbuf_i_lane_set_at(i)->name);
  every_mode();
  every_line();
  every_part();
  round_trips();
  headers();
  wrong_bytes();
  any_bytes();
  buffers();
  conversions();
  return tap_plan_done();
}
