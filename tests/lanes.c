/* tests/lanes.c: the kernels of packing in blocks. "plain" is compared with the layout of spec section 20, bit by bit;
 * every other set that this processor has with "plain". Guard pages lie on both sides of what kernels may touch.
 * May use: internals.h, fence.h. Must not know: blocks, batches, the format. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "internals.h"
#include "fence.h"

static void verdict(void) { verdict_on("", doing); }

/* ---- memory between two guard pages ---- */

enum { MOST = 8192 + 4096, CANARY = 0xA5, MARGIN = 128 };

static fence fenced(void) { return fence_of(MOST); }

/* Where `size` bytes lie: 0 at the end, 1 at the start, else in between at any alignment: where - 2. */
static uint8_t *place(fence f, size_t size, unsigned where) {
  return where == 0 ? f.end - size : where == 1 ? f.start : f.start + 1024 + (where - 2) % 64;
}

/* Room for output there, with canaries around. */
static uint8_t *output(fence f, size_t size, unsigned where) {
  uint8_t *at = place(f, size, where);
  uint8_t *from = at - f.start < MARGIN ? f.start : at - MARGIN,
          *to = f.end - (at + size) < MARGIN ? f.end : at + size + MARGIN;
  memset(from, CANARY, (size_t)(to - from));
  return at;
}

/* 1 when the canaries still stand. */
static int kept(fence f, const uint8_t *at, size_t size) {
  const uint8_t *from = at - f.start < MARGIN ? f.start : at - MARGIN,
                *to = f.end - (at + size) < MARGIN ? f.end : at + size + MARGIN;
  while (from < at && *from == CANARY) from++;
  while (to > at + size && to[-1] == CANARY) to--;
  return from == at && to == at + size;
}

static unsigned below(unsigned limit) { return (unsigned)((random64() >> 11) % limit); }

static fence in, in2, in3, out, out2, out3;
static uint8_t units[8192], words[8192], back[8192], bitmap[1024], high[8192 + 64];

/* Units are native: these do not use the kernels' own. */
static void put(unsigned bits, uint8_t *p, uint64_t unit) {
  for (unsigned i = 0; i < bits / 8; i++) p[packbuf_i_big_endian() ? bits / 8 - 1 - i : i] = (uint8_t)(unit >> (8 * i));
}

static uint64_t get(unsigned bits, const uint8_t *p) {
  uint64_t unit = 0;
  for (unsigned i = 0; i < bits / 8; i++) unit |= (uint64_t)p[packbuf_i_big_endian() ? bits / 8 - 1 - i : i] << (8 * i);
  return unit;
}

static uint64_t low(unsigned bits) { return bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1; }

static unsigned where(unsigned i) { return i < 2 ? i : 2 + below(64); }

static size_t size_of_words(unsigned bits, unsigned rows, unsigned width) {
  return (size_t)128 * ((rows * width + bits - 1) / bits);
}

/* ---- the definition ---- */

static const packbuf_i_lanes *plain(unsigned t) { return &packbuf_i_lane_set_at(0)->of[t]; }

/* Code of unit i, bit by bit as the spec says. */
static uint64_t code_at(unsigned bits, const uint8_t *from, unsigned i, unsigned width) {
  const unsigned lanes = 1024 / bits, lane = i % lanes, first = i / lanes * width;
  uint64_t code = 0;
  for (unsigned k = 0; k < width; k++) {
    const unsigned word = (first + k) / bits, bit = (first + k) % bits;
    const uint8_t byte = from[128 * word + lane * bits / 8 + bit / 8];
    code |= (uint64_t)(byte >> (bit % 8) & 1) << k;
  }
  return code;
}

static void definition(void) {
  begin("plain packs as the spec says");
  for (unsigned t = 0; t < 4; t++) {
    const unsigned bits = 8u << t, lanes = 1024 / bits;
    for (unsigned width = 1; width <= bits; width++)
      for (unsigned rows = 1 + width % 5; rows <= 64; rows += 21) {
        packbuf_i_codes codes = {random64() & low(bits), (uint8_t)width, 0, 0};
        const unsigned kind = below(3);
        const size_t size = size_of_words(bits, rows, width);
        uint64_t all = 0, got;
        if (kind == 1) codes.shift = (uint8_t)below(bits - width + 1);
        if (kind == 2) codes.zero = 1;
        for (unsigned i = 0; i < rows * lanes; i++) {
          uint64_t code = random64() & low(width), unit = codes.base + (code << codes.shift);
          if (kind == 2) unit = code < 2 ? code << (bits - 1) : codes.base + code - 2;
          if (kind == 2 && (unit & low(bits - 1)) == 0) code = unit >> (bits - 1) & 1;
          put(bits, units + (size_t)i * (bits / 8), unit);
          all |= code;
        }
        memset(words, CANARY, sizeof words);
        got = plain(t)->pack(units, rows, &codes, words, NULL, 0);
        expect(got == all, "T %u width %u rows %u kind %u: OR of the codes", bits, width, rows, kind);
        for (unsigned i = 0; i < rows * lanes; i++) {
          const uint64_t unit = get(bits, units + (size_t)i * (bits / 8)), code = code_at(bits, words, i, width);
          const uint64_t zero = (unit & low(bits - 1)) == 0 ? unit >> (bits - 1) : unit - codes.base + 2;
          const uint64_t want = kind == 2 ? zero : ((unit - codes.base) & low(bits)) >> codes.shift;
          expect(code == (want & low(bits)), "T %u width %u rows %u kind %u: code of unit %u", bits, width, rows, kind,
                 i);
        }
        for (unsigned bit = rows * width; bit % bits != 0; bit++)
          for (unsigned lane = 0; lane < lanes; lane++)
            expect((words[bit / bits * 128 + lane * bits / 8 + bit % bits / 8] >> (bit % 8) & 1) == 0,
                   "T %u width %u rows %u: bit %u of lane %u", bits, width, rows, bit, lane);
        expect(size == sizeof words || words[size] == CANARY, "T %u width %u rows %u: the words' end", bits, width,
               rows);
        plain(t)->unpack(words, 0, rows, &codes, back, 0);
        expect(memcmp(units, back, (size_t)rows * 128) == 0, "T %u width %u rows %u kind %u: units back", bits, width,
               rows, kind);
      }
  }
  verdict();
}

static void definition_split(void) {
  begin("plain splits as the spec says");
  for (unsigned t = 2; t < 4; t++) {
    const unsigned bits = 8u << t, lanes = 1024 / bits;
    for (unsigned width = 1; width <= bits - 8; width++)
      for (unsigned rows = 1 + width % 5; rows <= 64; rows += 21) {
        uint64_t all = 0, got;
        unsigned count = 0, used;
        for (unsigned i = 0; i < rows * lanes; i++) {
          const uint64_t unit = random64() & low(random64() % 10 < 4 ? width + 8 : width);
          put(bits, units + (size_t)i * (bits / 8), unit);
          all |= unit;
        }
        used = plain(t)->split(units, rows, width, words, bitmap, high, &got, NULL);
        expect(got == all, "T %u width %u rows %u: OR of the units", bits, width, rows);
        for (unsigned i = 0; i < rows * lanes; i++) {
          const uint64_t unit = get(bits, units + (size_t)i * (bits / 8));
          const int set = bitmap[i / 8] >> (i % 8) & 1;
          expect(code_at(bits, words, i, width) == (unit & low(width)), "T %u width %u rows %u: low bits of %u", bits,
                 width, rows, i);
          expect(set == (unit >> width != 0) && (!set || high[count] == unit >> width),
                 "T %u width %u rows %u: byte of %u", bits, width, rows, i);
          count += set != 0;
        }
        expect(used == count, "T %u width %u rows %u: %u bytes, not %u", bits, width, rows, used, count);
        used = plain(t)->join(words, bitmap, high, count, 0, rows, width, back, 0);
        expect(used == count && memcmp(units, back, (size_t)rows * 128) == 0, "T %u width %u rows %u: units back", bits,
               width, rows);
      }
  }
  verdict();
}

/* ---- the sets of this processor ---- */

typedef struct promise {
  const char *name, *flags[8]; /* as /proc/cpuinfo names what it needs */
} promise;

static const promise promises[] = {
    {"plain", {NULL}},
#if PACKBUF_I_LANES_SIMDE && PACKBUF_I_X86
    {"simde", {NULL}},
#endif
#if PACKBUF_I_LANES_VECTORS
    {"vector", {NULL}},
#endif
#if PACKBUF_I_LANES_SIMDE && !PACKBUF_I_X86
    {"simde", {NULL}},
#endif
#if PACKBUF_I_X86
    {"avx2slow", {"avx2", "bmi2", "popcnt", NULL}},
    {"avx2", {"avx2", "bmi2", "popcnt", NULL}},
    {"avx512", {"avx2", "bmi2", "popcnt", "avx512f", "avx512bw", "avx512dq", "avx512vl", NULL}},
    {"avx512vbmi2", {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vbmi2", NULL}},
#endif
};
enum { PROMISES = sizeof promises / sizeof promises[0] };

/* Whether the operating system names all flags; -1: it does not say. Asked apart from cpuid, so that no set goes
 * missing unseen. */
static int cpu_has(const char *const *flags) {
  char line[8192];
  int all = -1;
  FILE *file;
  if (flags[0] == NULL) return 1;
  file = fopen("/proc/cpuinfo", "r");
  if (file == NULL) return -1;
  while (all < 0 && fgets(line, sizeof line, file)) {
    if (strncmp(line, "flags", 5) != 0) continue;
    line[strcspn(line, "\n")] = ' ';
    all = 1;
    for (; *flags; flags++) {
      char word[32];
      snprintf(word, sizeof word, " %s ", *flags);
      if (strstr(line, word) == NULL) all = 0;
    }
  }
  fclose(file);
  return all;
}

static void choice(void) {
  unsigned count = 0;
  begin("the sets of this processor, and the best of them");
  while (packbuf_i_lane_set_at(count)) tap_note("set %s", packbuf_i_lane_set_at(count++)->name);
  for (unsigned i = 0; i < PROMISES; i++) {
    const packbuf_i_lane_set *set = packbuf_i_lane_set_at(i);
    const int has = cpu_has(promises[i].flags);
    if (set) expect(strcmp(set->name, promises[i].name) == 0, "set %u is %s", i, set->name);
    if (has >= 0) expect((set != NULL) == has, "%s: offered %d, /proc/cpuinfo %d", promises[i].name, set != NULL, has);
    else tap_note("/proc/cpuinfo says nothing about %s", promises[i].name);
  }
  expect(packbuf_i_lane_set_best() == packbuf_i_lane_set_at(count - 1), "the best is not the last");
  expect(packbuf_i_lane_set_at(100) == NULL, "set 100");
  verdict();
}

/* ---- every set against plain ---- */

/* Runs a check once for each set and T. */
static void each(const char *what, void (*check)(const packbuf_i_lane_set *set, unsigned t)) {
  static char text[200];
  for (unsigned i = 1; packbuf_i_lane_set_at(i); i++) {
    if (PACKBUF_SIMDE && strcmp(packbuf_i_lane_set_at(i)->name, "simde") != 0) continue; /* tests/lanes does */
    snprintf(text, sizeof text, "%s: %s", packbuf_i_lane_set_at(i)->name, what);
    begin(text);
    for (unsigned t = 0; t < 4; t++) check(packbuf_i_lane_set_at(i), t);
    verdict();
  }
}

/* Where ahead points: nowhere, in memory, or where reading crashes. */
static const void *ahead_at(unsigned i) {
  return i % 4 == 0 ? NULL : i % 4 == 1 ? in.start : i % 4 == 2 ? in.end : (const void *)(uintptr_t)16;
}

static packbuf_i_codes some_codes(unsigned bits, unsigned width, unsigned i) {
  packbuf_i_codes codes = {random64() & low(bits), (uint8_t)width, 0, 0};
  if (i % 4 == 1) codes.shift = (uint8_t)below(bits - width + 1);
  if (i % 4 == 2) codes.zero = 1;
  if (i % 4 == 3) codes.base = 0;
  return codes;
}

/* Units that are made of codes, or (every eighth time) anything. */
static void some_units(unsigned bits, unsigned rows, const packbuf_i_codes *codes, uint8_t *to) {
  const int any = below(8) == 0;
  for (unsigned i = 0; i < rows * (1024 / bits); i++) {
    const uint64_t x = random64(), code = x & low(codes->width) & (x >> 63 ? 0xFF : UINT64_MAX);
    put(bits, to + (size_t)i * (bits / 8),
        any           ? x
        : codes->zero ? code < 2 ? code << (bits - 1) : codes->base + code - 2
                      : codes->base + (code << codes->shift));
  }
}

static void check_pack(const packbuf_i_lane_set *set, unsigned t) {
  const unsigned bits = 8u << t;
  for (unsigned width = 1; width <= bits; width++)
    for (unsigned rows = 1; rows <= 64; rows += TAP_STEP) {
      const unsigned i = width * 64 + rows, stream = i & 1;
      const packbuf_i_codes codes = some_codes(bits, width, below(4));
      const size_t size = size_of_words(bits, rows, width);
      uint8_t *from = place(in, (size_t)rows * 128, where(i / 2 % 3)), *to = output(out, size, where(i / 3 % 3));
      uint64_t want, got;
      some_units(bits, rows, &codes, from);
      want = plain(t)->pack(from, rows, &codes, words, NULL, 0);
      got = set->of[t].pack(from, rows, &codes, to, ahead_at(i / 5), (int)stream);
      expect(got == want, "T %u width %u rows %u shift %u zero %u: OR of the codes", bits, width, rows, codes.shift,
             codes.zero);
      expect((want > low(width) || memcmp(words, to, size) == 0) && kept(out, to, size),
             "T %u width %u rows %u shift %u zero %u stream %u", bits, width, rows, codes.shift, codes.zero, stream);
    }
}

static void check_unpack(const packbuf_i_lane_set *set, unsigned t) {
  const unsigned bits = 8u << t;
  for (unsigned i = 0; i < sizeof words; i++) words[i] = (uint8_t)(random64() >> 24);
  for (unsigned width = 1; width <= bits; width++)
    for (unsigned rows = 1; rows <= 64; rows += TAP_STEP) {
      const unsigned i = width * 64 + rows, first = i % 3 ? below(65 - rows) : 0, stream = i & 1;
      const packbuf_i_codes codes = some_codes(bits, width, below(4));
      /* only the words that these rows need are there */
      const size_t start = first * width / bits * 128, size = size_of_words(bits, first + rows, width) - start;
      uint8_t *from = place(in, size, where(i / 2 % 3)), *to = output(out, (size_t)rows * 128, where(i / 3 % 3));
      memcpy(from, words + start, size);
      plain(t)->unpack(words, first, rows, &codes, back, 0);
      set->of[t].unpack((const uint8_t *)((uintptr_t)from - start), first, rows, &codes, to, (int)stream);
      expect(memcmp(back, to, (size_t)rows * 128) == 0 && kept(out, to, (size_t)rows * 128),
             "T %u width %u rows %u to %u shift %u zero %u stream %u", bits, width, first, first + rows, codes.shift,
             codes.zero, stream);
    }
}

static void check_alignments(const packbuf_i_lane_set *set, unsigned t) {
  static const uint8_t widths[] = {1, 3, 7, 8, 13, 16, 18, 31, 32, 33, 63, 64};
  const unsigned bits = 8u << t;
  for (unsigned w = 0; w < sizeof widths && widths[w] <= bits; w++)
    for (unsigned a = 0; a < 64; a++) {
      const unsigned width = widths[w], rows = 64 - a % 7, stream = a / 2 & 1;
      const packbuf_i_codes codes = some_codes(bits, width, a);
      const size_t size = size_of_words(bits, rows, width);
      uint8_t *from = place(in, (size_t)rows * 128, 2 + a), *to = output(out, size, 2 + a * 5), *again;
      uint64_t want;
      some_units(bits, rows, &codes, from);
      want = plain(t)->pack(from, rows, &codes, words, NULL, 0);
      expect(set->of[t].pack(from, rows, &codes, to, NULL, (int)stream) == want, "T %u width %u at %u: OR of the codes",
             bits, width, a);
      expect((want > low(width) || memcmp(words, to, size) == 0) && kept(out, to, size), "T %u width %u at %u", bits,
             width, a);
      again = output(out2, (size_t)rows * 128, 2 + a * 3);
      plain(t)->unpack(words, 0, rows, &codes, back, 0);
      set->of[t].unpack(words, 0, rows, &codes, again, (int)stream);
      expect(memcmp(back, again, (size_t)rows * 128) == 0 && kept(out2, again, (size_t)rows * 128),
             "T %u width %u at %u: unpacked", bits, width, a);
    }
}

/* What a scan is to find, unit by unit. */
static packbuf_i_spread define_spread(unsigned bits, const uint8_t *from, unsigned count, packbuf_i_scan_kind kind) {
  const uint64_t sign = (uint64_t)1 << (bits - 1), turn = kind == PACKBUF_I_SCAN_SIGNED ? sign : 0;
  packbuf_i_spread s;
  memset(&s, 0, sizeof s);
  s.least = s.most = s.top = get(bits, from);
  if (kind == PACKBUF_I_SCAN_FLOATS) s.least_set = low(bits);
  for (unsigned i = 0; i < count; i++) {
    const uint64_t unit = get(bits, from + (size_t)i * (bits / 8));
    if ((unit ^ turn) < (s.least ^ turn)) s.least = unit;
    if ((unit ^ turn) > (s.most ^ turn)) s.most = unit;
    if (unit > s.top) s.top = unit;
    s.differ |= unit ^ get(bits, from);
    if (kind != PACKBUF_I_SCAN_FLOATS) continue;
    if (unit == 0 || unit == sign) s.zeros = 1;
    else s.others = 1;
    if (unit != 0 && unit != sign && unit < s.least_set) s.least_set = unit;
  }
  return s;
}

enum {
  ZERO,
  PLAIN_ZEROS,
  BOTH_ZEROS,
  ONES_AND_ZEROS,
  ONES,
  NARROW,
  HALF,
  ANY,
  ANY_AND_ZERO,
  A_BIT,
  A_BIT_AND_MINUS_ZERO,
  CONTENTS
};

static void some_content(unsigned bits, unsigned count, unsigned content, uint8_t *to) {
  const uint64_t value = random64(), sign = (uint64_t)1 << (bits - 1), bit = (uint64_t)1 << below(bits);
  for (unsigned i = 0; i < count; i++) {
    const uint64_t x = random64(), y = x & random64();
    uint64_t unit = y;
    switch (content) {
      case ZERO: unit = 0; break;
      case PLAIN_ZEROS: unit = x & 1 ? 0 : value | 1; break;
      case BOTH_ZEROS: unit = x & 1 ? sign : 0; break;
      case ONES_AND_ZEROS: unit = x & 1 ? UINT64_MAX : x & 2 ? sign : 0; break;
      case ONES: unit = UINT64_MAX; break;
      case NARROW: unit = value; break;
      case HALF: unit = (value & ~low(bits / 2)) | (y & low(bits / 2)); break;
      case A_BIT:
      case A_BIT_AND_MINUS_ZERO: unit = (value & ~bit) | (y & bit); break;
      default: break;
    }
    put(bits, to + (size_t)i * (bits / 8), unit);
  }
  if (content == ANY_AND_ZERO) put(bits, to + (size_t)below(count) * (bits / 8), 0);
  if (content == A_BIT_AND_MINUS_ZERO) put(bits, to + (size_t)below(count) * (bits / 8), sign);
}

static void definition_scan(void) {
  begin("plain finds what there is in units");
  for (unsigned t = 0; t < 4; t++)
    for (unsigned rows = 1; rows <= 64; rows += 3)
      for (unsigned i = 0; i < 3 * CONTENTS; i++) {
        const unsigned bits = 8u << t, count = rows * (1024 / bits);
        packbuf_i_spread want, got;
        some_content(bits, count, i / 3, units);
        want = define_spread(bits, units, count, (packbuf_i_scan_kind)(i % 3));
        memset(&got, CANARY, sizeof got);
        plain(t)->scan(units, rows, (packbuf_i_scan_kind)(i % 3), &got);
        expect(memcmp(&want, &got, sizeof got) == 0, "T %u rows %u content %u as %u", bits, rows, i / 3, i % 3);
      }
  verdict();
}

static void check_scan(const packbuf_i_lane_set *set, unsigned t) {
  const unsigned bits = 8u << t;
  for (unsigned rows = 1; rows <= 64; rows += TAP_STEP)
    for (unsigned content = 0; content < CONTENTS; content++) {
      uint8_t *from = place(in, (size_t)rows * 128, where(content % 3));
      uint64_t value;
      some_content(bits, rows * (1024 / bits), content, from);
      value = get(bits, from);
      for (unsigned k = 0; k < 3; k++) {
        const packbuf_i_scan_kind kind = (packbuf_i_scan_kind)k;
        packbuf_i_spread want, got;
        memset(&got, CANARY, sizeof got);
        plain(t)->scan(from, rows, kind, &want);
        set->of[t].scan(from, rows, kind, &got);
        expect(memcmp(&want, &got, sizeof got) == 0, "T %u rows %u content %u as %u", bits, rows, content, k);
      }
      for (unsigned i = 0; i < rows; i++)
        if (random64() & 1)
          for (unsigned k = 0; k < 1024 / bits; k++) put(bits, from + i * 128 + k * (bits / 8), value);
      expect(plain(t)->dense(from, rows, value) == set->of[t].dense(from, rows, value),
             "T %u rows %u content %u: dense", bits, rows, content);
    }
}

static void check_lines(const packbuf_i_lane_set *set, unsigned t) {
  static const int64_t steps[] = {0, 1, -1, 3, 127, -128};
  const unsigned bits = 8u << t;
  for (unsigned count = 0; count <= 4096 && count <= 65536 / bits; count += count < 300 ? 1 : TAP_STEP * 7) {
    const uint64_t value = random64() & low(bits),
                   step = count % 7 == 6 ? random64() & low(bits) : (uint64_t)steps[count % 7] & low(bits);
    const size_t size = (size_t)count * (bits / 8);
    for (unsigned i = 0; i < 6; i++) {
      uint8_t *to = output(out, size, where(i % 3));
      const unsigned wrong = count ? below(count) : 0;
      plain(t)->line(back, count, value, step, 0);
      set->of[t].line(to, count, value, step, (int)(i & 1));
      expect(memcmp(back, to, size) == 0 && kept(out, to, size), "T %u count %u where %u: line", bits, count, i);
      expect(set->of[t].along(to, count, value, step) == count, "T %u count %u where %u: along", bits, count, i);
      if (count == 0) continue;
      to[wrong * (bits / 8) + below(bits / 8)] ^= (uint8_t)(1u << below(8));
      expect(set->of[t].along(to, count, value, step) == wrong, "T %u count %u where %u: along to %u", bits, count, i,
             wrong);
    }
  }
}

/* Lines of few and many units, so that some vectors have no bend, some several; the units before and after lie at the
 * very ends of the memory. */
static void check_bends(const packbuf_i_lane_set *set, unsigned t) {
  const unsigned bits = 8u << t, unit = bits / 8;
  for (unsigned rows = 1; rows <= 64; rows += TAP_STEP)
    for (unsigned i = 0; i < 6; i++) {
      const unsigned count = rows * (1024 / bits) + 2;
      const size_t size = (size_t)count * unit, bytes = (size_t)rows * (128 / bits);
      uint8_t *from = place(in, size, where(i % 3)), *to = output(out, bytes, where(i % 3));
      unsigned want, got;
      for (unsigned at = 0, some; at < count; at += some) {
        some = 1 + below(i & 1 ? 4 : 300);
        if (some > count - at) some = count - at;
        plain(t)->line(from + (size_t)at * unit, some, random64() & low(bits),
                       i & 2 ? random64() & low(bits) : below(3), 0);
      }
      want = plain(t)->bends(from + unit, rows, back);
      got = set->of[t].bends(from + unit, rows, to);
      expect(got == want && memcmp(back, to, bytes) == 0 && kept(out, to, bytes),
             "T %u rows %u where %u: %u bends, not %u", bits, rows, i, got, want);
    }
}

static void check_copy(const packbuf_i_lane_set *set, unsigned t) {
  for (size_t size = 0; size <= 8192; size += size < 600 ? 1 : 61 * TAP_STEP)
    for (unsigned i = 0; i < 4; i++) {
      uint8_t *from = place(in, size, where((i + t) % 3)), *to = output(out, size, where(i % 3));
      if (size > 0) memset(from, (int)size, size);
      for (size_t k = 0; k < size; k += 5) from[k] = (uint8_t)(k * 7);
      set->copy(to, from, size, (int)(t & 1));
      expect(memcmp(from, to, size) == 0 && kept(out, to, size), "copy of %u bytes", (unsigned)size);
    }
}

static void check_split(const packbuf_i_lane_set *set, unsigned t) {
  const unsigned bits = 8u << t, lanes = 1024 / bits;
  if (t < 2) {
    expect(set->of[t].split == NULL && set->of[t].join == NULL, "T %u", bits);
    return;
  }
  for (unsigned width = 1; width <= bits - 8; width++)
    for (unsigned rows = 1; rows <= 64; rows += TAP_STEP) {
      const unsigned i = width * 64 + rows, share = below(11);
      const size_t size = size_of_words(bits, rows, width), map = rows * lanes / 8, room = rows * lanes + 64;
      uint8_t *from = place(in, (size_t)rows * 128, where(i / 2 % 3)), *to = output(out, size, where(i / 3 % 3));
      uint8_t *to_map = output(out2, map, where(i / 5 % 3)), *to_high = output(out3, room, where(i / 7 % 3));
      uint64_t want_all, all = 0;
      unsigned want, got;
      for (unsigned k = 0; k < rows * lanes; k++)
        put(bits, from + (size_t)k * (bits / 8), random64() & low(random64() % 10 < share ? width + 8 : width));
      want = plain(t)->split(from, rows, width, words, bitmap, high, &want_all, NULL);
      got = set->of[t].split(from, rows, width, to, to_map, to_high, &all, ahead_at(i / 5));
      expect(want == got && want_all == all, "T %u width %u rows %u: %u bytes, not %u, or the OR", bits, width, rows,
             got, want);
      expect(memcmp(words, to, size) == 0 && kept(out, to, size), "T %u width %u rows %u: words", bits, width, rows);
      expect(memcmp(bitmap, to_map, map) == 0 && kept(out2, to_map, map), "T %u width %u rows %u: bitmap", bits, width,
             rows);
      expect(memcmp(high, to_high, want) == 0 && kept(out3, to_high, room), "T %u width %u rows %u: bytes", bits, width,
             rows);
      /* units of more bits: what is written is not said, but where */
      memset(from, 255, (size_t)rows * 128);
      got = set->of[t].split(from, rows, width, to, to_map, to_high, &all, NULL);
      expect(all == low(bits) && got <= rows * lanes && kept(out, to, size) && kept(out2, to_map, map) &&
                 kept(out3, to_high, room),
             "T %u width %u rows %u: too large", bits, width, rows);
    }
}

static void check_join(const packbuf_i_lane_set *set, unsigned t) {
  const unsigned bits = 8u << t, lanes = 1024 / bits;
  if (t < 2) return;
  for (unsigned i = 0; i < sizeof words; i++) words[i] = (uint8_t)(random64() >> 24);
  for (unsigned i = 0; i < sizeof high; i++) high[i] = (uint8_t)(random64() >> 24);
  for (unsigned width = 1; width <= bits - 8; width++)
    for (unsigned rows = 1; rows <= 64; rows += TAP_STEP) {
      const unsigned i = width * 64 + rows, first = i % 3 ? below(65 - rows) : 0, share = below(11);
      const size_t start = first * width / bits * 128, size = size_of_words(bits, first + rows, width) - start,
                   map = rows * lanes / 8;
      uint8_t *from = place(in, size, where(i / 2 % 3)), *from_map = place(in2, map, where(i / 5 % 3)), *from_high,
              *to = output(out, (size_t)rows * 128, where(i / 3 % 3));
      unsigned want, got, bytes = 0, size_of_high;
      for (unsigned k = 0; k < rows * lanes; k++) {
        if (k % 8 == 0) bitmap[first * lanes / 8 + k / 8] = 0;
        if (random64() % 10 >= share) continue;
        bitmap[first * lanes / 8 + k / 8] |= (uint8_t)(1u << k % 8);
        bytes++;
      }
      size_of_high = i % 4 == 0 ? bytes : i % 4 == 1 ? bytes + below(65) : i % 4 == 2 ? below(bytes + 1) : below(40);
      from_high = place(in3, size_of_high, where(i / 7 % 3));
      memcpy(from, words + start, size);
      memcpy(from_map, bitmap + first * lanes / 8, map);
      memcpy(from_high, high, size_of_high);
      want = plain(t)->join(words, bitmap, high, size_of_high, first, rows, width, back, 0);
      got = set->of[t].join((const uint8_t *)((uintptr_t)from - start),
                            (const uint8_t *)((uintptr_t)from_map - first * lanes / 8), from_high, size_of_high, first,
                            rows, width, to, (int)(i & 1));
      expect(want == bytes && got == bytes, "T %u width %u rows %u to %u: %u bytes used, not %u", bits, width, first,
             first + rows, got, bytes);
      expect(memcmp(back, to, (size_t)rows * 128) == 0 && kept(out, to, (size_t)rows * 128),
             "T %u width %u rows %u to %u, %u of %u bytes", bits, width, first, first + rows, size_of_high, bytes);
    }
}

int main(void) {
  fence *fences[] = {&in, &in2, &in3, &out, &out2, &out3};
  if (PACKBUF_SIMDE && !PACKBUF_I_LANES_SIMDE) {
    tap_ok(packbuf_i_lane_set_at(1) == NULL, "no set but plain on this machine");
    return tap_plan_done();
  }
  for (unsigned i = 0; i < 6; i++) *fences[i] = fenced();
  signal(SIGSEGV, crashed);
  signal(SIGBUS, crashed);
  definition();
  definition_split();
  definition_scan();
  choice();
  each("pack, every width and number of rows", check_pack);
  each("unpack, every width and number of rows", check_unpack);
  each("pack and unpack at all alignments", check_alignments);
  each("scan and dense", check_scan);
  each("line and along", check_lines);
  each("bends", check_bends);
  each("copy", check_copy);
  each("split", check_split);
  each("join, with the bytes it asks for or not", check_join);
  return tap_plan_done();
}
