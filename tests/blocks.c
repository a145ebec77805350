/* tests/blocks.c: blocks, packed and read. Blocks of every width, sign and kind of float are packed by every lane set, in every mode, and come back the same, as a
 * whole, in parts and one by one; the choice is held against a definition written here; headers and payloads of any bytes are read between guard pages.
 * May use: packbuf.h with its statics, tap.h. Must not know: batches, views, the rest of the format. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_IMPLEMENTATION
#ifdef PACKBUF_HEADER
#include PACKBUF_HEADER
#else
#include "../packbuf.h"
#endif
#include "tap.h"
#include <sys/mman.h>
#include <unistd.h>

/* ---- many checks, one test: the first failure is kept ---- */

static unsigned long checks, complaints;
static char complaint[400];

TAP_PRINTF(2, 3) static void complain(int line, const char *format, ...) {
  va_list args;
  int at;
  if (complaints++) return;
  at = snprintf(complaint, sizeof complaint, "line %d: ", line);
  va_start(args, format);
  vsnprintf(complaint + at, sizeof complaint - (size_t)at, format, args);
  va_end(args);
}

#define expect(condition, ...) (checks++, (condition) ? (void)0 : complain(__LINE__, __VA_ARGS__))

static void verdict(const char *what) {
  if (!tap_ok(complaints == 0 && checks > 0, "%s (%lu checks)", what, checks)) {
    tap_note("%lu failed, the first at %s", complaints, complaint);
    fprintf(stderr, "# %lu failed, the first at %s\n", complaints, complaint);
  }
  checks = complaints = 0;
}

static uint64_t seed = 88172645463325252u;

static uint64_t random64(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed * 0x2545F4914F6CDD1Du;
}

static unsigned below(unsigned limit) { return (unsigned)((random64() >> 32) % limit); }

/* ---- memory between two guard pages ---- */

typedef struct fence {
  uint8_t *start, *end; /* start[-1] and end[0] are out of bounds */
} fence;

static fence fenced(size_t size) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (size + page - 1) / page * page;
  fence f;
  uint8_t *all = (uint8_t *)mmap(NULL, inside + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == (uint8_t *)MAP_FAILED || mprotect(all, page, PROT_NONE) || mprotect(all + page + inside, page, PROT_NONE)) {
    printf("Bail out! mmap\n");
    exit(1);
  }
  f.start = all + page;
  f.end = f.start + inside;
  return f;
}

static fence from, to, back;

/* ---- dtypes ---- */

typedef struct kind {
  const char *name;
  packbuf_dtype dtype;
} kind;

static const kind kinds[] = {
    {"int8", {PACKBUF_DTYPE_INT, 8, 1}},         {"uint8", {PACKBUF_DTYPE_UINT, 8, 1}},     {"bool", {PACKBUF_DTYPE_BOOL, 8, 1}},
    {"float8", {PACKBUF_DTYPE_FLOAT8_E5M2, 8, 1}}, {"int16", {PACKBUF_DTYPE_INT, 16, 1}},     {"uint16", {PACKBUF_DTYPE_UINT, 16, 1}},
    {"float16", {PACKBUF_DTYPE_FLOAT, 16, 1}},   {"bfloat16", {PACKBUF_DTYPE_BFLOAT, 16, 1}}, {"int32", {PACKBUF_DTYPE_INT, 32, 1}},
    {"uint32", {PACKBUF_DTYPE_UINT, 32, 1}},     {"float32", {PACKBUF_DTYPE_FLOAT, 32, 1}}, {"int64", {PACKBUF_DTYPE_INT, 64, 1}},
    {"uint64", {PACKBUF_DTYPE_UINT, 64, 1}},     {"float64", {PACKBUF_DTYPE_FLOAT, 64, 1}},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static uint64_t cut(uint64_t number, unsigned bits) { return number & packbuf_i_low_bits(bits); }

static uint64_t get(const uint8_t *units, unsigned bits, unsigned i) { return packbuf_i_unit_load(bits, units + (size_t)i * (bits / 8)); }

static void put(uint8_t *units, unsigned bits, unsigned i, uint64_t unit) { packbuf_i_unit_store(bits, units + (size_t)i * (bits / 8), unit); }

/* ---- sorts of content ---- */

enum {
  CONSTANT, RAMP, STEEP, RUNS_12, RUNS_13, RAMPS, MASK, NARROW, SHIFTED, WITH_ZEROS, PADDED, PADDED_ONES, TOKENS, TOKENS_PADDED, FEW_TOPS, MANY_TOPS, SPARSE, ONE_HIGH, ALL_HIGH, NOISE, SIGNS,
  SORTS
};
static const char *const sort_names[] = {"constant", "ramp", "steep ramp", "12 runs", "13 runs", "ramps", "mask", "narrow", "shifted", "with zeros", "padded", "padded with ones", "tokens",
    "padded tokens", "few tops", "many tops", "sparse", "one high", "all high", "noise", "signs"};

static void make_units(uint8_t *units, unsigned bits, unsigned count, unsigned sort) {
  const unsigned in_row = 1024 / bits, width = 1 + below(bits), low = below(bits);
  const uint64_t base = random64(), step = sort == STEEP ? random64() : below(7) - (uint64_t)3;
  uint64_t value = random64();
  for (unsigned i = 0; i < count; i++) {
    const uint64_t noise = random64();
    uint64_t unit = noise;
    switch (sort) {
      case CONSTANT: unit = base; break;
      case RAMP:
      case STEEP: unit = base + i * step; break;
      case RUNS_12: unit = base + i * 12u / count; break;
      case RUNS_13: unit = base + (i * 13u / count) * (i * 13u / count); break;
      case RAMPS: unit = i * 7u / count * 29u + i; break;
      case MASK: unit = noise >> 63; break;
      case NARROW: unit = base + cut(noise, width); break;
      case SHIFTED: unit = (cut(noise, bits - low) << low) + (cut(base, low + 1) >> 1); break;
      case WITH_ZEROS: unit = noise >> 62 ? cut(base, bits - 1) / 2 + cut(noise, bits / 2 - 1) + 1 : 0; break;
      case PADDED: unit = i / in_row % 5 < 2 ? cut(noise, width) : 7; break;
      case PADDED_ONES: unit = i / in_row % 3 == 1 ? 1 : 0; break;
      case TOKENS: unit = noise >> 60 < 7 ? cut(noise, bits / 2) : cut(noise, bits / 4); break;
      case TOKENS_PADDED: unit = i / in_row % 4 < 1 ? (noise >> 60 < 7 ? cut(noise, bits / 2) : cut(noise, bits / 4)) : 1000; break;
      case FEW_TOPS: unit = cut(noise, bits * 3 / 4) | (noise >> 60 < 3 ? noise >> 59 : 1) << (bits - 6); break;
      case MANY_TOPS: unit = cut(noise, bits * 2 / 3) | (noise >> 58) << (bits - 6); break;
      case SPARSE: unit = noise >> 57 == 0 ? noise : 0; break;
      case ONE_HIGH: unit = i == count / 2 ? cut(~(uint64_t)0, bits / 2) : cut(noise, 2); break;
      case ALL_HIGH: unit = cut(noise, bits / 2) | (uint64_t)1 << (bits / 2 - 1); break;
      case SIGNS: unit = (uint64_t)below(9) - 4; break;
      default: break;
    }
    value += step;
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
  recipe.is_float = dtype.code != PACKBUF_DTYPE_INT && dtype.code != PACKBUF_DTYPE_UINT && dtype.code != PACKBUF_DTYPE_BOOL;
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
  snprintf(described, sizeof described, "%u units of %u bits, mode %u, base %llx, width %u, shift %u, extra %u", units, bits, block->mode,
           (unsigned long long)block->base, block->width, block->shift, block->extra);
  return described;
}

/* A block's payload at the end of `from`; units at `want`. */
static void read_back(const packbuf_i_lane_set *set, const packbuf_i_block *block, const uint8_t *payload, uint32_t size, unsigned bits, unsigned units, const uint8_t *want) {
  const unsigned unit = bits / 8;
  uint8_t *out = back.end - units * unit;
  for (int stream = 0; stream < 2; stream++) {
    memset(back.start, 0xA5, (size_t)(back.end - back.start));
    expect(packbuf_i_block_units(set, block, payload, size, bits, units, 0, units, out, stream) && memcmp(out, want, units * unit) == 0, "%s: %s", set->name,
           describe(block, bits, units));
    expect(out == back.start || out[-1] == 0xA5, "%s: written before: %s", set->name, describe(block, bits, units));
  }
  for (unsigned i = 0; i < 12; i++) {
    const unsigned first = below(units), count = i % 3 ? below(units - first + 1) : below(units - first < 70 ? units - first + 1 : 70);
    out = i & 1 ? back.start : back.end - count * unit;
    expect(packbuf_i_block_units(set, block, payload, size, bits, units, first, count, out, i & 2) && memcmp(out, want + first * unit, count * unit) == 0, "%s: %u from %u: %s",
           set->name, count, first, describe(block, bits, units));
  }
}

static void read_one_by_one(const packbuf_i_block *block, const uint8_t *payload, uint32_t size, unsigned bits, unsigned units, const uint8_t *want, unsigned step) {
  for (unsigned i = 0; i < units; i += step) {
    uint64_t unit = ~get(want, bits, i);
    expect(packbuf_i_block_unit(block, payload, size, bits, units, i, &unit) && unit == get(want, bits, i), "unit %u: %s", i, describe(block, bits, units));
  }
}

static unsigned long reached[256][65];

/* Packs a block with every lane set; the bytes are the same; and reads it. Returns its size. */
static uint32_t pack_and_read(const packbuf_i_recipe *recipe, const uint8_t *units, unsigned count, packbuf_i_block *block) {
  static uint8_t kept[PACKBUF_I_PAYLOAD_ROOM];
  static packbuf_i_packer packer;
  const packbuf_i_lane_set *set;
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
      expect(packbuf_i_block_unsound(block, recipe->bits, count) < 0, "unsound: %s", describe(block, recipe->bits, count));
      expect(size % 64 == 0 && size <= PACKBUF_I_PAYLOAD_BOUND && size <= packbuf_i_round_64(count * (recipe->bits / 8u)), "%u bytes: %s", (unsigned)size, describe(block, recipe->bits, count));
      expect(packbuf_i_block_size(block, recipe->bits, count) == size || packbuf_i_block_size(block, recipe->bits, count) == UINT32_MAX, "size: %s",
             describe(block, recipe->bits, count));
      reached[block->mode][recipe->bits]++;
    }
    expect(bytes == size && memcmp(&other, block, sizeof other) == 0 && memcmp(payload, kept, size) == 0, "%s packs other bytes: %s", set->name, describe(block, recipe->bits, count));
    exact = to.end - size;
    memmove(exact, payload, size);
    expect(packbuf_i_block_whole(block, exact, size, recipe->bits, count), "not whole: %s", describe(block, recipe->bits, count));
    read_back(set, block, exact, size, recipe->bits, count, units);
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
        const unsigned rows = below(64), count = round < ALLOWED ? full : round & 1 ? 1 + below(full) : rows * in_row + 1 + below(in_row);
        uint8_t *units = from.end - count * (bits / 8);
        allow(&recipe, round % ALLOWED, round % 3 ? bits / 2 - 8 + (bits == 32 ? 0 : below(3)) : 1 + below(bits - 8 > 0 ? bits - 8 : 1));
        if (recipe.split > bits - 8) recipe.split = 1;
        make_units(units, bits, count, sort);
        pack_and_read(&recipe, units, count, &block);
      }
    }
  verdict("blocks of every dtype and sort, packed by every set to the same bytes, and read");
}

int main(void) {
  from = fenced(8192);
  to = fenced(PACKBUF_I_PAYLOAD_ROOM);
  back = fenced(8192 + 64);
  round_trips();
  for (unsigned m = 0; m < 256; m++)
    for (unsigned b = 0; b < 65; b++)
      if (reached[m][b]) tap_note("mode %u bits %u: %lu", m, b, reached[m][b]);
  (void)sort_names;
  return tap_plan_done();
}
