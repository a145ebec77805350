/* tests/kernels.c: the rooms below the format: checksum kernels, gather, the way to the destination, UTF-8, numbers as
 * text. Each kernel that this processor has is forced in turn and compared with a definition written here; guard pages
 * lie on both sides of what it may touch.
 * May use: internals.h, fence.h. Must not know: batches, views, the format. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "internals.h"
#include "fence.h"
#include <fenv.h>

static void verdict(const char *who) { verdict_on(who, doing); }

/* ---- memory between two guard pages ---- */

static size_t page;

static size_t below(size_t limit) { return (size_t)(random64() >> 11) % limit; }

static void scramble(fence f) {
  for (uint8_t *p = f.start; p < f.end; p++) *p = (uint8_t)(random64() >> 24);
}

#define CANARY 0xA5
#define MARGIN 192 /* canaries on either side */

static int untouched(const uint8_t *p, size_t size) {
  return size == 0 || (p[0] == CANARY && memcmp(p, p + 1, size - 1) == 0);
}

/* Where kernels are told the next bytes lie: nowhere, in memory, at its very end, and where a read would crash. */
enum { AHEADS = 5 };
static const uint8_t *ahead_at(int which, fence f) {
  switch (which) {
    case 1: return f.start + 1;
    case 2: return f.end - 1;
    case 3: return f.end; /* the guard page */
    case 4: return (const uint8_t *)(uintptr_t)16;
    default: return NULL;
  }
}

/* ---- CRC-32C ---- */

/* The definition: polynomial 0x1EDC6F41, bits reversed, all ones in, complemented out. */
static uint32_t crc_byte(uint32_t crc, uint8_t byte) {
  crc = ~crc ^ byte;
  for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
  return ~crc;
}

typedef struct crc_kernel {
  packbuf_i_crc_kernel as;
  const char *flags[5]; /* as /proc/cpuinfo names what it needs */
} crc_kernel;

/* What packbuf_i_crc_kernel_at has to yield, as far as the processor goes. */
static const crc_kernel crc_kernels[] = {
    {{"plain", packbuf_i_crc_plain, packbuf_i_crc_plain_copy, 0}, {NULL}},
#if PACKBUF_I_CRC_X86
    {{"sse42", packbuf_i_crc_sse42, packbuf_i_crc_sse42_copy, 0}, {"sse4_2", "pclmulqdq", NULL}},
    {{"vpclmul", packbuf_i_crc_vpclmul, packbuf_i_crc_vpclmul_copy, 0},
     {"sse4_2", "pclmulqdq", "avx512f", "vpclmulqdq", NULL}},
#endif
#if PACKBUF_I_CRC_ARM
    {{"armcrc", packbuf_i_crc_arm, packbuf_i_crc_arm_copy, 0}, {NULL}}, /* every server and emulator has it */
#endif
};
enum { CRC_KERNELS = sizeof crc_kernels / sizeof crc_kernels[0] };

/* Whether the operating system names all flags; -1: it does not say. Asked apart from cpuid, so that no kernel goes
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

static int same_kernel(const packbuf_i_crc_kernel *a, const packbuf_i_crc_kernel *b) {
  return strcmp(a->name, b->name) == 0 && a->crc == b->crc && a->copy_crc == b->copy_crc;
}

static unsigned crc_count(void) {
  unsigned count = 0;
  while (packbuf_i_crc_kernel_at(count)) count++;
  return count;
}

static void crc_choice(void) {
  const unsigned count = crc_count();
  begin("the kernels of this processor, by name and function");
  expect(count >= 1 && count <= CRC_KERNELS, "%u kernels", count);
  for (unsigned i = 0; i < CRC_KERNELS; i++) {
    const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_at(i);
    const int has = cpu_has(crc_kernels[i].flags);
    expect((kernel != NULL) == (i < count), "kernel %u after the end", i);
    if (kernel) expect(same_kernel(kernel, &crc_kernels[i].as), "kernel %u is %s", i, kernel->name);
    if (has >= 0)
      expect((kernel != NULL) == has, "%s: offered %d, /proc/cpuinfo %d", crc_kernels[i].as.name, kernel != NULL, has);
    else tap_note("/proc/cpuinfo says nothing about %s", crc_kernels[i].as.name);
  }
  expect(packbuf_i_crc_kernel_best() == packbuf_i_crc_kernel_at(count - 1), "the best is not the last");
  expect(strcmp(packbuf_checksum_kernel(), packbuf_i_crc_kernel_at(count - 1)->name) == 0,
         "packbuf_checksum_kernel: %s", packbuf_checksum_kernel());
  expect(packbuf_checksum(0, "123456789", 9) == 0xE3069283u, "packbuf_checksum: check value");
  expect(packbuf_checksum(packbuf_checksum(0, "1234", 4), "56789", 5) == 0xE3069283u, "packbuf_checksum: chained");
  verdict("crc");
}

/* One copy among canaries. */
static void crc_copy(const packbuf_i_crc_kernel *kernel, uint32_t crc, uint8_t *dst, const uint8_t *src, size_t size,
                     int stream, const void *ahead, uint32_t want) {
  uint32_t got;
  memset(dst - MARGIN, CANARY, size + 2 * MARGIN);
  got = kernel->copy_crc(crc, dst, src, size, stream, ahead);
  expect(got == want, "copy of %zu, src %u, dst %u, stream %d, ahead %d: %08X, not %08X", size,
         (unsigned)((uintptr_t)src & 63), (unsigned)((uintptr_t)dst & 63), stream, ahead != NULL, (unsigned)got,
         (unsigned)want);
  expect(memcmp(dst, src, size) == 0 && untouched(dst - MARGIN, MARGIN) && untouched(dst + size, MARGIN),
         "bytes of a copy of %zu, src %u, dst %u, stream %d, ahead %d", size, (unsigned)((uintptr_t)src & 63),
         (unsigned)((uintptr_t)dst & 63), stream, ahead != NULL);
}

/* values[n]: the checksum of the first n bytes, going on from crc */
static void crc_define(uint32_t *values, uint32_t crc, const uint8_t *p, size_t size) {
  values[0] = crc;
  for (size_t n = 0; n < size; n++) values[n + 1] = crc = crc_byte(crc, p[n]);
}

#define SHORT 1100
#define LONGEST 200000

static uint32_t crc_values[LONGEST + 1];

static void crc_short(const packbuf_i_crc_kernel *kernel, fence from, fence to) {
  static const size_t sizes[] = {1,   2,   3,   4,   7,   8,   9,    12,   15,   16,   17,   31,   63,
                                 64,  65,  127, 128, 191, 255, 256,  257,  319,  320,  383,  384,  385,
                                 511, 512, 767, 768, 769, 960, 1023, 1024, 1025, 1087, 1088, 1099, 1100};
  uint8_t *dst = to.start + 256;
  begin("lengths 0 to 1100 at all alignments of the source, streams 0 to 2, with and without ahead");
  expect(kernel->crc(0, "123456789", 9) == 0xE3069283u, "check value");
  for (unsigned a = 0; a < 64; a++) {
    const uint32_t crc = a & 1 ? 0x12345678u : 0;
    const uint8_t *src = from.start + 64 + a;
    crc_define(crc_values, crc, src, SHORT);
    for (unsigned n = 0; n <= SHORT; n++) {
      const size_t cut = (size_t)n * (a + 1) / 65;
      expect(kernel->crc(crc, src, n) == crc_values[n], "%u bytes, src %u", n, a);
      expect(kernel->crc(kernel->crc(crc, src, cut), src + cut, n - cut) == crc_values[n],
             "%u bytes, src %u, chained at %zu", n, a, cut);
      for (int stream = 0; stream < 3; stream++)
        for (unsigned with = 0; with < 2; with++) {
          const unsigned b = (n * 5 + a * 11 + (unsigned)stream * 23 + with * 32) & 63;
          crc_copy(kernel, crc, dst + b, src, n, stream, with ? src + n + 64 : NULL, crc_values[n]);
        }
    }
  }
  verdict(kernel->name);
  begin("some lengths at all pairs of alignments");
  for (unsigned a = 0; a < 64; a++) {
    const uint8_t *src = from.start + 64 + a;
    crc_define(crc_values, 0, src, SHORT);
    for (unsigned b = 0; b < 64; b++)
      for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        crc_copy(kernel, 0, dst + b, src, sizes[i], sizes[i] < 1024 ? (int)((i + b) % 3) : 1 + (int)((i + a) & 1),
                 a & 2 ? src + 2048 : NULL, crc_values[sizes[i]]);
  }
  verdict(kernel->name);
}

static void crc_long(const packbuf_i_crc_kernel *kernel, fence from, fence to) {
  static const size_t sizes[] = {1535,  1536,  3071,  3072,  3073,   4095,   4096,   4097,   4159,  4351,
                                 4352,  4353,  4416,  6143,  6144,   8191,   8192,   8193,   12288, 16384,
                                 32767, 65535, 65536, 65537, 131071, 131072, 131073, 199999, 200000};
  static const unsigned offsets[] = {0, 1, 17, 63};
  uint8_t *dst = to.start + 256;
  begin("lengths to 200000 at some alignments");
  for (unsigned o = 0; o < 4; o++) {
    const uint8_t *src = from.start + 64 + offsets[o];
    crc_define(crc_values, 77, src, LONGEST);
    for (unsigned i = 0; i < 60; i++) {
      const size_t size = i < sizeof sizes / sizeof sizes[0] ? sizes[i] : 1101 + below(i & 1 ? 20000 : LONGEST - 1101);
      const size_t cut = below(size);
      expect(kernel->crc(77, src, size) == crc_values[size], "%zu bytes, src %u", size, offsets[o]);
      expect(kernel->crc(crc_values[cut], src + cut, size - cut) == crc_values[size],
             "%zu bytes, src %u, chained at %zu", size, offsets[o], cut);
      for (int stream = 0; stream < 3; stream++)
        crc_copy(kernel, 77, dst + (i * 13 + (unsigned)stream * 16) % 64, src, size, stream,
                 (i + (unsigned)stream) & 1 ? from.start : NULL, crc_values[size]);
    }
    for (size_t size = SHORT + 1 + o; size < 9000; size += 7)
      crc_copy(kernel, 77, dst + (size * 3 & 63), src, size, (int)(size % 3), size & 8 ? from.start : NULL,
               crc_values[size]);
  }
  verdict(kernel->name);
}

/* Source and destination flush with guard pages: what is read or written too much crashes. */
static void crc_guarded(const packbuf_i_crc_kernel *kernel, fence from, fence to) {
  begin("guard pages around source and destination, ahead up to where reading crashes");
  for (int s = 0; s < 2; s++)
    for (size_t n = 0; n <= 20000; n += n < SHORT ? 1 : n < 4000 ? 127 : 1511) {
      const uint8_t *src = s ? from.end - n : from.start;
      if (s || n == 0) crc_define(crc_values, 1, src, s ? n : 20000);
      expect(kernel->crc(1, src, n) == crc_values[n], "%zu bytes, side %d", n, s);
      for (int d = 0; d < 2; d++) {
        uint8_t *dst = d ? to.end - n : to.start, *beside = d ? dst - MARGIN : dst + n;
        for (int k = 0; k < 3 * AHEADS; k++) {
          uint32_t got;
          memset(beside, CANARY, MARGIN);
          memset(dst, CANARY, n);
          got = kernel->copy_crc(1, dst, src, n, k % 3, ahead_at(k / 3, from));
          expect(got == crc_values[n] && memcmp(dst, src, n) == 0 && untouched(beside, MARGIN),
                 "%zu bytes, sides %d and %d, stream %d, ahead %d", n, s, d, k % 3, k / 3);
        }
      }
    }
  verdict(kernel->name);
}

static void crc(void) {
  const fence from = fence_of(LONGEST + 4096), to = fence_of(LONGEST + 4096);
  const unsigned count = crc_count();
  scramble(from);
  memset(to.start, CANARY, (size_t)(to.end - to.start));
  crc_choice();
  for (unsigned i = 0; i < count; i++) {
    const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_at(i);
    tap_note("checksum kernel %s", kernel->name);
    crc_short(kernel, from, to);
    crc_long(kernel, from, to);
    crc_guarded(kernel, from, to);
  }
  packbuf_i_crc_fence();
}

/* ---- gather, and the copy past the caches ---- */

typedef struct gather_kernel {
  const char *name;
  packbuf_i_gather copy;
  const char *flags[2];
} gather_kernel;

static const gather_kernel gathers[] = {
#if PACKBUF_I_CRC_X86
    {"sse2", packbuf_i_gather_sse2, {"sse2", NULL}},
    {"avx", packbuf_i_gather_avx, {"avx", NULL}},
    {"avx512", packbuf_i_gather_avx512, {"avx512f", NULL}},
#else
    {"plain", packbuf_i_gather_plain, {NULL, NULL}},
#endif
};
enum { GATHERS = sizeof gathers / sizeof gathers[0] };

static const gather_kernel streams[] = {
#if PACKBUF_I_CRC_X86
    {"stream sse2", packbuf_i_stream_sse2, {NULL, NULL}},
    {"stream avx", packbuf_i_stream_avx, {NULL, NULL}},
#else
    {"stream plain", packbuf_i_gather_plain, {NULL, NULL}},
#endif
};
enum { STREAMS = sizeof streams / sizeof streams[0] };

static int gather_runs(unsigned i) {
#if PACKBUF_I_CRC_X86
  if (i == 1) return __builtin_cpu_supports("avx") != 0;
  if (i == 2) return __builtin_cpu_supports("avx512f") != 0;
#endif
  return i < GATHERS;
}

static unsigned gather_count(void) {
  unsigned count = 0;
  while (gather_runs(count)) count++;
  return count;
}

static void gather_check(packbuf_i_gather copy, uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead) {
  memset(dst - MARGIN, CANARY, size + 2 * MARGIN);
  copy(dst, src, size, ahead);
  expect(memcmp(dst, src, size) == 0 && untouched(dst - MARGIN, MARGIN) && untouched(dst + size, MARGIN),
         "%zu bytes, src %u, dst %u, ahead %d", size, (unsigned)((uintptr_t)src & 63), (unsigned)((uintptr_t)dst & 63),
         ahead != NULL);
}

static void gather_all(const char *name, packbuf_i_gather copy, fence from, fence to) {
  begin("gather: lengths 0 to 1100 at all alignments, longer ones at some");
  for (unsigned a = 0; a < 64; a++)
    for (unsigned n = 0; n <= SHORT; n++)
      for (unsigned with = 0; with < 2; with++)
        gather_check(copy, to.start + 256 + ((n * 5 + a * 11 + with * 32) & 63), from.start + a, n,
                     with ? from.start + 4096 : NULL);
  for (unsigned b = 0; b < 64 * 64; b++)
    gather_check(copy, to.start + 256 + b / 64, from.start + b % 64, 256 + b % 3 * 256 + b % 65,
                 b & 1 ? from.start + 4096 : NULL);
  for (size_t n = SHORT + 1; n < 9000; n += 61)
    gather_check(copy, to.start + 256 + (n & 63), from.start + (n >> 3 & 63), n, n & 1 ? from.start : NULL);
  verdict(name);
  begin("gather: guard pages, ahead up to where reading crashes");
  for (size_t n = 0; n < 9000; n += n < SHORT ? 1 : 113)
    for (int k = 0; k < 4 * AHEADS; k++) {
      const uint8_t *src = k & 1 ? from.end - n : from.start;
      uint8_t *dst = k & 2 ? to.end - n : to.start, *beside = k & 2 ? dst - MARGIN : dst + n;
      memset(beside, CANARY, MARGIN);
      memset(dst, CANARY, n);
      copy(dst, src, n, ahead_at(k / 4, from));
      expect(memcmp(dst, src, n) == 0 && untouched(beside, MARGIN), "%zu bytes, sides %d and %d, ahead %d", n, k & 1,
             k >> 1 & 1, k / 4);
    }
  verdict(name);
}

static void gather(void) {
  const fence from = fence_of(16384), to = fence_of(16384);
  const unsigned count = gather_count();
  scramble(from);
  begin("gather: the variants of this processor");
  for (unsigned i = 0; i < GATHERS; i++) {
    const int has = cpu_has(gathers[i].flags);
    if (has >= 0) expect((i < count) == has, "%s: runs %d, /proc/cpuinfo %d", gathers[i].name, i < count, has);
  }
  expect(packbuf_i_gather_best() == gathers[count - 1].copy, "the best is not %s", gathers[count - 1].name);
  verdict("");
  for (unsigned i = 0; i < count; i++) {
    tap_note("gather %s", gathers[i].name);
    gather_all(gathers[i].name, gathers[i].copy, from, to);
  }
  expect(packbuf_i_stream_best() == streams[count > 1 && STREAMS > 1 ? 1 : 0].copy, "not the best stream");
  for (unsigned i = 0; i < STREAMS && i < count; i++) gather_all(streams[i].name, streams[i].copy, from, to);
  packbuf_i_crc_fence();
}

/* ---- the way to the destination ---- */

/* The kernels under test sit behind these, which count: what was forced is what ran. */
static struct {
  const packbuf_i_crc_kernel *kernel;
  packbuf_i_gather gather;
  int stream;
  const void *ahead; /* of the last call */
  unsigned long sums, copies, gathers;
} forced;

static uint32_t forced_crc(uint32_t value, const void *data, size_t size) {
  forced.sums++;
  return forced.kernel->crc(value, data, size);
}

static uint32_t forced_copy_crc(uint32_t value, void *dst, const void *src, size_t size, int stream,
                                const void *ahead) {
  forced.copies++;
  forced.ahead = ahead;
  expect(stream == forced.stream, "stream %d", stream);
  return forced.kernel->copy_crc(value, dst, src, size, stream, ahead);
}

static void forced_gather(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead) {
  forced.gathers++;
  forced.ahead = ahead;
  forced.gather(dst, src, size, ahead);
}

static const packbuf_i_crc_kernel forced_kernel = {"forced", forced_crc, forced_copy_crc, 0};

enum { BYTES, ZEROS, IN_PLACE };
typedef struct op {
  int kind;
  size_t size;
} op;

#define OUT_MAX 900000

static uint8_t out_model[OUT_MAX];
static uint32_t crc_rows[256];

/* Does the operations, to a section that ends at a guard page or among canaries; compares bytes and checksums with the
 * model. */
static void out_check(const op *ops, unsigned count, int stream, int checksums, int flush, fence from, fence to) {
  packbuf_i_out out;
  size_t total = 0, sums, checksums_at, section;
  uint8_t *base;
  uint32_t value = 0;
  for (unsigned i = 0; i < count; i++) total += ops[i].size;
  sums = checksums ? (total + 65535) / 65536 : 0;
  checksums_at = 1 + below(300);
  section = checksums_at + sums * 4 + below(200);
  base = flush ? to.end - section - total : to.start + below(64);
  memset(base, CANARY, section + total + (flush ? 0 : MARGIN));
  packbuf_i_out_begin(&out, base + section, 0, total, checksums ? base + checksums_at : NULL, stream);
  expect(out.kernel == packbuf_i_crc_kernel_best() && out.gather == packbuf_i_gather_best(), "not the best kernels");
  out.kernel = &forced_kernel;
  out.gather = forced_gather;
  expect((out.copy_long != NULL) == (stream && !checksums), "past the caches without a reason, or not with one");
  if (out.copy_long) out.copy_long = forced_gather;
  forced.stream = stream ? 2 : 0;
  total = 0;
  for (unsigned i = 0; i < count; i++) {
    const size_t size = ops[i].size, whole = (size_t)(from.end - from.start);
    const uint8_t *src = i & 1 ? from.end - size : from.start + below(whole - size + 1);
    expect(packbuf_i_out_here(&out) == base + section + total, "run %u: wrong place", i);
    if (ops[i].kind == ZEROS) {
      memset(out_model + total, 0, size);
      packbuf_i_out_zeros(&out, size);
    } else {
      memcpy(out_model + total, src, size);
      if (ops[i].kind == BYTES) {
        const uint8_t *ahead = ahead_at((int)below(AHEADS), from);
        const unsigned long before = forced.gathers + forced.copies;
        packbuf_i_out_bytes(&out, src, size, ahead);
        if (size < PACKBUF_I_LONG || checksums || stream)
          expect(forced.gathers + forced.copies > before && forced.ahead == ahead,
                 "run %u of %zu: not by the forced kernels, or ahead was lost", i, size);
      } else {
        memcpy(packbuf_i_out_here(&out), src, size);
        packbuf_i_out_written(&out, size);
      }
    }
    total += size;
  }
  packbuf_i_out_end(&out);
  expect(out.at == total, "%zu bytes written, counted %zu", total, (size_t)out.at);
  expect(memcmp(base + section, out_model, total) == 0, "bytes of %u runs, %zu bytes", count, total);
  expect(untouched(base, checksums_at) &&
             untouched(base + checksums_at + sums * 4, section - checksums_at - sums * 4) &&
             (flush || untouched(base + section + total, MARGIN)),
         "canaries of %u runs, %zu bytes", count, total);
  for (size_t at = 0; checksums && at < total;) {
    value = (value ^ 0xFFFFFFFFu);
    do {
      value = crc_rows[(value ^ out_model[at]) & 255] ^ (value >> 8);
      at++;
    } while (at < total && at % 65536 != 0);
    value ^= 0xFFFFFFFFu;
    expect(packbuf_i_load32(base + checksums_at + (at - 1) / 65536 * 4) == value, "checksum %zu of %u runs, %zu bytes",
           (at - 1) / 65536, count, total);
    value = 0;
  }
}

static unsigned random_ops(op *ops, unsigned most) {
  unsigned count = 0;
  size_t total = 0;
  while (count < most) {
    op o;
    switch (below(9)) {
      case 0: o.size = 0; break;
      case 1: o.size = below(70); break;
      case 2: o.size = below(1100); break;
      case 3: o.size = below(PACKBUF_I_LONG); break;
      case 4: o.size = PACKBUF_I_LONG - 2 + below(5); break;
      case 5: o.size = 65536 - total % 65536; break; /* up to the boundary, or a byte past it */
      case 6: o.size = 65537 - total % 65536; break;
      case 7: o.size = 65535 - total % 65536; break;
      default: o.size = below(LONGEST + 1); break;
    }
    o.kind = (int)below(6);
    if (o.kind > IN_PLACE) o.kind = BYTES;
    if (total + o.size > OUT_MAX) break;
    total += o.size;
    ops[count++] = o;
  }
  return count;
}

static void out(void) {
  static const size_t sizes[] = {0,     1,     8191,   8192,   16383,  16384,  16385, 65535,
                                 65536, 65537, 131071, 131072, 131073, 196608, 200000};
  const fence from = fence_of(LONGEST + 4096), to = fence_of(OUT_MAX + 4096);
  const unsigned kernels = crc_count(), variants = gather_count();
  op ops[400];
  scramble(from);
  for (unsigned i = 0; i < 256; i++) crc_rows[i] = ~crc_byte(0xFFFFFFFFu, (uint8_t)i);
  for (unsigned k = 0; k < (kernels > variants ? kernels : variants); k++)
    for (int mode = 0; mode < 4; mode++) {
      const int stream = mode & 1, checksums = mode >> 1;
      char who[80];
      memset(&forced, 0, sizeof forced);
      forced.kernel = packbuf_i_crc_kernel_at(k < kernels ? k : kernels - 1);
      forced.gather = gathers[k < variants ? k : variants - 1].copy;
      snprintf(who, sizeof who, "%s and gather %s, stream %d, checksums %d", forced.kernel->name,
               gathers[k < variants ? k : variants - 1].name, stream, checksums);
      begin("output: single runs and random sequences against a model");
      for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int kind = BYTES; kind <= IN_PLACE; kind++) {
          ops[0].kind = kind;
          ops[0].size = sizes[i];
          out_check(ops, 1, stream, checksums, (int)(i & 1), from, to);
        }
      out_check(ops, 0, stream, checksums, 0, from, to);
      for (unsigned i = 0; i < 400; i++) { /* as rows come: short ones of one size */
        ops[i].kind = BYTES;
        ops[i].size = 1024;
      }
      out_check(ops, 400, stream, checksums, 1, from, to);
      for (int round = 0; round < 24; round++) {
        const unsigned count = random_ops(ops, 1 + (unsigned)below(round & 1 ? 12 : 400));
        out_check(ops, count, stream, checksums, round & 1, from, to);
      }
      expect(forced.gathers > 0 && (!checksums || (forced.sums > 0 && forced.copies > 0)),
             "the forced kernels did not run");
      verdict(who);
    }
}

/* ---- UTF-8 ---- */

/* The definition: by the number of leading ones, then the value's range. The start of the first invalid sequence, or
 * size. */
static size_t utf8_decode(const uint8_t *text, size_t size) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t at = 0;
  while (at < size) {
    uint32_t value = text[at];
    size_t length = 1;
    if (value >= 0x80) {
      if ((value & 0xE0) == 0xC0) length = 2;
      else if ((value & 0xF0) == 0xE0) length = 3;
      else if ((value & 0xF8) == 0xF0) length = 4;
      else return at;
      if (size - at < length) return at;
      value &= 0x7Fu >> length;
      for (size_t i = 1; i < length; i++) {
        if (text[at + i] >> 6 != 2) return at;
        value = value << 6 | (text[at + i] & 0x3Fu);
      }
      if (value < least[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return at;
    }
    at += length;
  }
  return size;
}

static size_t utf8_encode(uint32_t value, uint8_t *to) {
  if (value < 0x80) {
    to[0] = (uint8_t)value;
    return 1;
  }
  if (value < 0x800) {
    to[0] = (uint8_t)(0xC0 | value >> 6);
    to[1] = (uint8_t)(0x80 | (value & 63));
    return 2;
  }
  if (value < 0x10000) {
    to[0] = (uint8_t)(0xE0 | value >> 12);
    to[1] = (uint8_t)(0x80 | (value >> 6 & 63));
    to[2] = (uint8_t)(0x80 | (value & 63));
    return 3;
  }
  to[0] = (uint8_t)(0xF0 | value >> 18);
  to[1] = (uint8_t)(0x80 | (value >> 12 & 63));
  to[2] = (uint8_t)(0x80 | (value >> 6 & 63));
  to[3] = (uint8_t)(0x80 | (value & 63));
  return 4;
}

static int utf8_avx2; /* the wide kernel runs here */

static void utf8_is(const uint8_t *text, size_t size, size_t want) {
  const size_t plain = packbuf_i_utf8_plain(text, 0, size), valid = packbuf_i_utf8_valid(text, size);
  expect(plain == want, "plain: %zu, not %zu, of %zu: ... %02X", plain, want, size, want < size ? text[want] : 0u);
  expect(valid == want, "valid: %zu, not %zu, of %zu: ... %02X", valid, want, size, want < size ? text[want] : 0u);
#if PACKBUF_I_UTF8_AVX2
  if (utf8_avx2 && text) { /* may stop early, but at the start of a sequence, and only before an error */
    const size_t scan = packbuf_i_utf8_avx2_scan(text, size);
    expect((scan == size) == (want == size) && scan <= want, "avx2: %zu, not %zu, of %zu: ... %02X", scan, want, size,
           want < size ? text[want] : 0u);
    if (scan < want)
      expect(packbuf_i_utf8_plain(text, scan, size) == want && utf8_decode(text, scan) == scan,
             "avx2 stops inside a sequence: %zu of %zu", scan, size);
  }
#endif
}

static void utf8_check(const uint8_t *text, size_t size) { utf8_is(text, size, utf8_decode(text, size)); }

/* A sequence alone and in ASCII text at places that wander over the vectors, always up to a guard page. */
static void utf8_sequence(fence f, const uint8_t *bytes, size_t size, int often) {
  static size_t place;
  size_t whole;
  uint8_t *text = f.end - size;
  memcpy(text, bytes, size);
  utf8_check(text, size);
  place = (place + 7) % 131;
  whole = utf8_avx2 ? 64 + place : 4 + place % 40; /* the wide kernel begins at 64 */
  text = f.end - whole;
  memset(text, 'a', whole - size);
  memcpy(f.end - size, bytes, size);
  utf8_check(text, whole);
  if (!often) return;
  text = f.end - 192;
  memset(text, 'a', 192);
  memcpy(text + place, bytes, size);
  utf8_check(text, 192);
}

static const uint8_t utf8_edges[] = {0x00, 0x41, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x91, 0x9F, 0xA0,
                                     0xA1, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED,
                                     0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF};
enum { EDGES = sizeof utf8_edges };

static void utf8_sequences(fence f) {
  static const uint8_t leads3[] = {0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF};
  static const uint8_t leads4[] = {0x41, 0x80, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0,
                                   0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF};
  uint8_t s[4];
  begin("UTF-8: all sequences of one and two bytes");
  for (unsigned v = 0; v < 256; v++) {
    s[0] = (uint8_t)v;
    for (int i = 0; i < 131; i++) utf8_sequence(f, s, 1, 1);
  }
  for (unsigned v = 0; v < 65536; v++) {
    s[0] = (uint8_t)(v >> 8);
    s[1] = (uint8_t)v;
    utf8_sequence(f, s, 2, 1);
  }
  verdict("");
  begin("UTF-8: all of three bytes for the leads at the boundaries");
  for (unsigned i = 0; i < sizeof leads3; i++)
    for (unsigned v = 0; v < 65536; v++) {
      s[0] = leads3[i];
      s[1] = (uint8_t)(v >> 8);
      s[2] = (uint8_t)v;
      utf8_sequence(f, s, 3, 0);
    }
  verdict("");
  begin("UTF-8: four bytes from the boundaries");
  for (unsigned i = 0; i < sizeof leads4; i++)
    for (unsigned v = 0; v < EDGES * EDGES * EDGES; v++) {
      s[0] = leads4[i];
      s[1] = utf8_edges[v / (EDGES * EDGES)];
      s[2] = utf8_edges[v / EDGES % EDGES];
      s[3] = utf8_edges[v % EDGES];
      utf8_sequence(f, s, 4, 0);
    }
  verdict("");
  begin("UTF-8: every code point encoded, in one text");
  {
    const fence all = fence_of(4400000);
    uint8_t *to = all.start;
    size_t size;
    for (uint32_t v = 0; v <= 0x10FFFF; v++)
      if (v < 0xD800 || v > 0xDFFF) to += utf8_encode(v, to);
    size = (size_t)(to - all.start);
    utf8_is(memmove(all.end - size, all.start, size), size, size);
    munmap(all.start - page, (size_t)(all.end - all.start) + 2 * page);
  }
  verdict("");
}

static void utf8_texts(fence f) {
  static const uint8_t bad[] = {0x80, 0xBF, 0xC0, 0xC2, 0xE2, 0xED, 0xF0, 0xF4, 0xFF};
  static const uint32_t good[] = {0xE9, 0x7FF, 0x20AC, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF};
  static const size_t sizes[] = {0, 8, 19, 64, 130, 700}; /* bytes behind */
  uint8_t mixed[512];
  size_t size = 0;
  while (size < 400) {
    static const uint32_t limits[] = {0x80, 0x80, 0x800, 0x10000, 0x110000};
    const uint32_t value = (uint32_t)below(limits[below(5)]);
    if (value < 0xD800 || value > 0xDFFF) size += utf8_encode(value, mixed + size);
  }
  begin("UTF-8: a mixed text cut off at every position, at both ends of a mapping");
  for (size_t cut = 0; cut <= size; cut++)
    for (size_t from = 0; from < size && from <= cut; from += 1 + from / 4) {
      memcpy(f.end - (cut - from), mixed + from, cut - from);
      utf8_check(f.end - (cut - from), cut - from);
      memcpy(f.start, mixed + from, cut - from);
      utf8_check(f.start, cut - from);
    }
  expect(utf8_decode(mixed, size) == size, "the text itself");
  verdict("");
  begin("UTF-8: every byte at every position of a mixed text");
  for (size_t at = 0; at < size; at++) {
    uint8_t *text = f.end - size;
    memcpy(text, mixed, size);
    for (unsigned v = 0; v < 256; v++) {
      text[at] = (uint8_t)v;
      if (v >= 0x78) utf8_check(text, size); /* of ASCII a few will do */
    }
  }
  verdict("");
  begin("UTF-8: ASCII with one bad byte, or one good sequence, at each offset 0 to 300");
  for (size_t at = 0; at <= 300; at++)
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
      const size_t whole = at + 4 + sizes[i];
      uint8_t *text = f.end - whole;
      memset(text, 'x', whole);
      utf8_is(text, whole, whole);
      for (unsigned b = 0; b < sizeof bad; b++) {
        text[at] = bad[b];
        utf8_is(text, whole, at);
        utf8_is(text, at + 1, at);
      }
      for (unsigned g = 0; g < sizeof good / sizeof good[0]; g++) {
        memset(text + at, 'x', 4);
        utf8_encode(good[g], text + at);
        utf8_is(text, whole, whole);
      }
    }
  verdict("");
  begin("UTF-8: nothing but continuations or leads, and random bytes, at both ends of a mapping");
  for (size_t n = 0; n <= 300; n++) {
    for (unsigned b = 0; b < sizeof bad; b++) {
      memset(f.start, bad[b], n);
      utf8_check(f.start, n);
      memset(f.end - n, bad[b], n);
      utf8_check(f.end - n, n);
    }
    for (unsigned round = 0; round < 40; round++) {
      uint8_t *text = round & 1 ? f.end - n : f.start;
      for (size_t i = 0; i < n; i++) text[i] = below(24) ? 'y' : utf8_edges[below(EDGES)];
      utf8_check(text, n);
    }
  }
  utf8_is(NULL, 0, 0);
  verdict("");
}

static void utf8(void) {
  const fence f = fence_of(4096);
#if PACKBUF_I_UTF8_AVX2
  static const char *const flags[] = {"avx2", NULL};
  const int has = cpu_has(flags);
  utf8_avx2 = __builtin_cpu_supports("avx2") != 0;
  begin("UTF-8: the kernels of this processor");
  expect(has < 0 || has == utf8_avx2, "avx2: runs %d, /proc/cpuinfo %d", utf8_avx2, has);
  verdict("");
#endif
  tap_note("UTF-8 kernels: plain%s", utf8_avx2 ? ", avx2" : "");
  utf8_sequences(f);
  utf8_texts(f);
}

/* ---- numbers and text ---- */

typedef struct number {
  uint64_t bits;
  const char *text;
} number;

/* By Python's repr. */
static const number formats[] = {
    {0x0000000000000000u, "0.0"},
    {0x8000000000000000u, "-0.0"},
    {0x0000000000000001u, "5e-324"},
    {0x8000000000000001u, "-5e-324"},
    {0x0000000000000002u, "1e-323"},
    {0x0000000000000003u, "1.5e-323"},
    {0x000000000000000Au, "5e-323"},
    {0x0007FFFFFFFFFFFFu, "1.1125369292536e-308"},
    {0x0008000000000000u, "1.1125369292536007e-308"},
    {0x000FFFFFFFFFFFFFu, "2.225073858507201e-308"},
    {0x0010000000000000u, "2.2250738585072014e-308"},
    {0x0010000000000001u, "2.225073858507202e-308"},
    {0x0020000000000000u, "4.450147717014403e-308"},
    {0x001FFFFFFFFFFFFFu, "4.4501477170144023e-308"},
    {0x7FEFFFFFFFFFFFFFu, "1.7976931348623157e+308"},
    {0xFFEFFFFFFFFFFFFFu, "-1.7976931348623157e+308"},
    {0x7FE0000000000000u, "8.98846567431158e+307"},
    {0x433FFFFFFFFFFFFFu, "9007199254740991.0"},
    {0x4340000000000000u, "9007199254740992.0"},
    {0x4340000000000001u, "9007199254740994.0"},
    {0x4340000000000002u, "9007199254740996.0"},
    {0x4350000000000000u, "1.8014398509481984e+16"},
    {0x43E0000000000000u, "9.223372036854776e+18"},
    {0x43F0000000000000u, "1.8446744073709552e+19"},
    {0x3D30000000000000u, "5.684341886080802e-14"},
    {0x3EB0000000000000u, "9.5367431640625e-07"},
    {0x3E60000000000000u, "2.9802322387695312e-08"},
    {0x0020000000000000u, "4.450147717014403e-308"},
    {0x3FF0000000000000u, "1.0"},
    {0xBFF0000000000000u, "-1.0"},
    {0x4024000000000000u, "10.0"},
    {0x4059000000000000u, "100.0"},
    {0x40FE240000000000u, "123456.0"},
    {0x430C6BF526340000u, "1000000000000000.0"},
    {0x4341C37937E08000u, "1e+16"},
    {0x4341C37937E07FFFu, "9999999999999998.0"},
    {0x4341C37937E08000u, "1e+16"},
    {0x4376345785D8A000u, "1e+17"},
    {0x437B69B4BA630F35u, "1.2345678901234568e+17"},
    {0x444B1AE4D6E2EF50u, "1e+21"},
    {0x4480F0CF064DD592u, "1e+22"},
    {0x44B52D02C7E14AF6u, "1e+23"},
    {0x44B52D02C7E14AF7u, "1.0000000000000001e+23"},
    {0x44B52D02C7E14AF5u, "9.999999999999997e+22"},
    {0x4480F0CF064DD593u, "1.0000000000000002e+22"},
    {0x3FB999999999999Au, "0.1"},
    {0x3FC999999999999Au, "0.2"},
    {0x3FD3333333333333u, "0.3"},
    {0x3FD3333333333334u, "0.30000000000000004"},
    {0x3FE0000000000000u, "0.5"},
    {0x3FD5555555555555u, "0.3333333333333333"},
    {0x3FE5555555555555u, "0.6666666666666666"},
    {0x3F50624DD2F1A9FCu, "0.001"},
    {0x3F1A36E2EB1C432Du, "0.0001"},
    {0x3F1CD5F99C38B04Bu, "0.00011"},
    {0x3EE4F8B588E368F1u, "1e-05"},
    {0x3F19F3C70C996B76u, "9.9e-05"},
    {0x4011666666666666u, "4.35"},
    {0x3FEE666666666666u, "0.95"},
    {0x405EDD2F1A9FBE77u, "123.456"},
    {0xC05EDD2F1A9FBE77u, "-123.456"},
    {0x400921FB54442D18u, "3.141592653589793"},
    {0x4005BF0A8B145769u, "2.718281828459045"},
    {0x3F60624DD2F1A9FCu, "0.002"},
    {0x447C7E83209E90B2u, "8.41e+21"},
    {0x44440662AB5C856Cu, "7.3879e+20"},
    {0x43E052961C6F8000u, "9.409340012568248e+18"},
    {0x000000000000002Du, "2.2e-322"},
    {0x0000000000000018u, "1.2e-322"},
    {0x43523A516E82D9BAu, "2.052268400649188e+16"},
    {0x4830F0CF064DD592u, "5.764607523034235e+39"},
    {0x4840F0CF064DD592u, "1.152921504606847e+40"},
    {0x4850F0CF064DD592u, "2.305843009213694e+40"},
    {0x3F18E757928E0C9Eu, "9.5e-05"},
    {0x3EE9E4091070DF4Cu, "1.2345678e-05"},
    {0x0000000008000000u, "6.63123685e-316"},
    {0x000000000000FFFFu, "3.23786e-319"},
    {0x001FFFFFFFFFFFFFu, "4.4501477170144023e-308"},
    {0x01D820D39A9D57D0u, "9.00719925474099e-300"},
    {0x7FE1CCF385EBC8A0u, "1e+308"},
    {0x0031FA182C40C60Du, "1e-307"},
    {0x000730D67819E8D2u, "1e-308"},
    {0x0000000000000002u, "1e-323"},
};

/* By exact rational arithmetic. */
static const number parses[] = {
    {0x0000000000000000u, "0"},
    {0x8000000000000000u, "-0"},
    {0x0000000000000000u, "0.0"},
    {0x8000000000000000u, "-0.0"},
    {0x8000000000000000u, "-0e5"},
    {0x0000000000000000u, "0E+7"},
    {0x0000000000000000u, "0e999999999999999999999"},
    {0x0000000000000000u, "0.0e-5"},
    {0x8000000000000000u, "-0.000e-99999999999999999999"},
    {0x3FF0000000000000u, "1"},
    {0x3FF0000000000000u, "1e0"},
    {0x3FF0000000000000u, "1E0"},
    {0x3FF0000000000000u, "1e+0"},
    {0x3FF0000000000000u, "1e-0"},
    {0x40F86A0000000000u, "1e00000000000000000000005"},
    {0x3FF0000000000000u, "10e-1"},
    {0x3FF0000000000000u, "0.1e1"},
    {0x3FF0000000000000u, "0.00001e5"},
    {0x3FF8000000000000u, "1.5"},
    {0xC062C00000000000u, "-1.5E2"},
    {0x3FF0000000000000u, "100000000000000000000000000000e-29"},
    {0x4480F0CF064DD592u, "1e22"},
    {0x44B52D02C7E14AF6u, "1e23"},
    {0x44B52D02C7E14AF6u, "9.999999999999999e22"},
    {0x44B52D02C7E14AF6u, "99999999999999991611392"},
    {0x44B52D02C7E14AF6u, "99999999999999991611393"},
    {0x44B52D02C7E14AF6u, "99999999999999991611391.9"},
    {0x44B52D02C7E14AF7u, "1.0000000000000000838861e23"},
    {0x44B1FFDBF6B2B2EBu, "8.5e22"},
    {0x3B5E392010175EE6u, "1e-22"},
    {0x3B282DB34012B251u, "1e-23"},
    {0x433FFFFFFFFFFFFFu, "9007199254740991"},
    {0x4340000000000000u, "9007199254740992"},
    {0x4340000000000000u, "9007199254740993"},
    {0xC340000000000000u, "-9007199254740993"},
    {0x4340000000000000u, "9007199254740993.0"},
    {0x4340000000000000u, "9007199254740992.999999999999999999999999"},
    {0x4340000000000001u, "9007199254740993.000000000000000000000000001"},
    {0x4340000000000001u, "9007199254740994"},
    {0x4340000000000002u, "9007199254740995"},
    {0x4340000000000002u, "9007199254740995.00000000000000001"},
    {0x4340000000000002u, "9007199254740996"},
    {0x4340000000000002u, "9007199254740997"},
    {0x4330000000000000u, "4503599627370496.5"},
    {0x4330000000000002u, "4503599627370497.5"},
    {0x4330000000000001u, "4503599627370497.499999999999999999999"},
    {0x43F0000000000000u, "18446744073709551615"},
    {0x43F0000000000000u, "18446744073709551616"},
    {0x43F0000000000000u, "18446744073709551617"},
    {0x43E0000000000000u, "9223372036854775807"},
    {0x43E0000000000000u, "9223372036854775808"},
    {0x43DFFFFFFFFFFFFFu, "9223372036854774784"},
    {0x43DFFFFFFFFFFFFFu, "9223372036854775295"},
    {0x43E0000000000000u, "9223372036854775296"},
    {0x43E0000000000000u, "9223372036854775297"},
    {0x43E158E460913D00u, "9999999999999999999"},
    {0x43E158E460913D00u, "10000000000000000000"},
    {0x4415AF1D78B58C40u, "99999999999999999999"},
    {0x4415AF1D78B58C40u, "99999999999999999999e0"},
    {0x4484EA15B273B38Au, "12345678901234567890123"},
    {0x7FEFFFFFFFFFFFFFu, "1.7976931348623157e308"},
    {0xFFEFFFFFFFFFFFFFu, "-1.7976931348623157e308"},
    {0x7FEFFFFFFFFFFFFFu, "1.7976931348623158e308"},
    {0x7FEFFFFFFFFFFFFFu, "1.7976931348623158079e308"},
    {0x7FEFFFFFFFFFFFFFu, "1.797693134862315807e308"},
    {0x7FF0000000000000u, "1.797693134862315808e308"},
    {0x7FF0000000000000u, "1.7976931348623159e308"},
    {0xFFF0000000000000u, "-1.7976931348623159e308"},
    {0x7FEFFFFFFFFFFFFFu, "17976931348623157e292"},
    {0x7FE1CCF385EBC8A0u, "1e308"},
    {0x7FF0000000000000u, "1e309"},
    {0xFFF0000000000000u, "-1e309"},
    {0x7FF0000000000000u, "9e308"},
    {0x7FF0000000000000u, "1e400"},
    {0x7FF0000000000000u, "0.1e310"},
    {0x7FF0000000000000u, "1e99999999999999999999999"},
    {0xFFF0000000000000u, "-1e2147483648"},
    {0x7FF0000000000000u, "1e9223372036854775808"},
    {0x0000000000000001u, "5e-324"},
    {0x0000000000000001u, "4.9406564584124654e-324"},
    {0x0000000000000001u, "4.9e-324"},
    {0x0000000000000001u, "3e-324"},
    {0x0000000000000001u, "2.5e-324"},
    {0x0000000000000001u, "2.4703282292062328e-324"},
    {0x0000000000000001u, "2.47032822920623273e-324"},
    {0x0000000000000000u, "2.4703282292062327e-324"},
    {0x0000000000000000u, "2.47032822920623272e-324"},
    {0x0000000000000000u, "2e-324"},
    {0x8000000000000000u, "-2e-324"},
    {0x0000000000000001u, "7.4e-324"},
    {0x0000000000000002u, "7.5e-324"},
    {0x0000000000000002u, "1e-323"},
    {0x0000000000000000u, "1e-324"},
    {0x0000000000000000u, "1e-325"},
    {0x0000000000000000u, "1e-400"},
    {0x8000000000000000u, "-1e-400"},
    {0x0000000000000000u, "1e-99999999999999999999"},
    {0x0000000000000000u, "123456789e-9999999999"},
    {0x0010000000000000u, "2.2250738585072014e-308"},
    {0x000FFFFFFFFFFFFFu, "2.2250738585072011e-308"},
    {0x0010000000000000u, "2.2250738585072012e-308"},
    {0x000FFFFFFFFFFFFFu, "2.225073858507201e-308"},
    {0x0010000000000000u, "2.2250738585072013e-308"},
    {0x0010000000000001u, "2.225073858507202e-308"},
    {0x000FFFFFFFFFFFFFu, "2.22507385850720113605740979670913197593481954635164564e-308"},
    {0x0010000000000000u, "2.22507385850720113605740979670913197593481954635164565e-308"},
    {0x001FFFFFFFFFFFFFu, "4.4501477170144023e-308"},
    {0x3FB999999999999Au, "0.1"},
    {0x3FC999999999999Au, "0.2"},
    {0x3FD3333333333333u, "0.3"},
    {0x3FD3333333333334u, "0.30000000000000004"},
    {0x3FB999999999999Au, "0.1000000000000000055511151231257827021181583404541015625"},
    {0x3FB999999999999Au, "0.10000000000000000555111512312578270211815834045410156250000000000001"},
    {0x3FE0000000000002u, "0.500000000000000166533453693773481063544750213623046875"},
    {0x42C0000000000002u, "3.518437208883201171875e13"},
    {0x43389E56EE5E7A58u, "6.9294956446009195e15"},
    {0x404F44ABD5AA7CA4u, "62.5364939768271845828"},
    {0x3E0BD5CBAEF0FD0Cu, "8.10109172351e-10"},
    {0x3FF8000000000000u, "1.50000000000000011102230246251565404"},
    {0x3E60000000000000u, "2.9802322387695312e-08"},
    {0x3E60000000000000u, "2.9802322387695313e-8"},
    {0x5CC3220DCD5899FDu, "7120190517612959703e120"},
    {0x3FD4B8F2F1E5A28Cu, "3.2378839133029012895883524125015321748630094140479e-1"},
    {0x43389E56EE5E7A58u, "6929495644600919.5"},
    {0x7D13EE2EE9D5716Du, "3.18223219e294"},
    {0x4314976C0803FEACu, "1448997445238699"},
    {0x44DFE185D6C70058u, "6.0221409e+23"},
    {0x3EB0000000000000u, "9.5367431640625e-7"},
    {0x496FFFFFFFFFFFFFu, "5708990770823839207320493820740630171355185151999e-3"},
    {0x6CFBA06371D51D8Au, "9523641452928486765e198"},
    {0x64777FE14F40159Bu, "9299437776150998265e157"},
    {0x5411CFF66922BF44u, "9511739134228537908e78"},
    {0x6A7DA2C42FCE2BC5u, "9291670768920183330e186"},
    {0x5A4CEC72F961CFC5u, "9789510569809118153e108"},
    {0x14F307A67F1F69FFu, "9261453446107000190e-226"},
    {0x0988FEE8275E77E1u, "9922465941194031929e-281"},
    {0x7B5058EC9DE7641Cu, "9723520580679062213e267"},
    {0x6CFBA06371D51D8Au, "9523641452928486765.0000000000000000000000001e198"},
    {0x6CFBA06371D51D8Au, "9523641452928486764.999999999e198"},
};

#define INFINITE ((uint64_t)0x7FF << 52)
#define MAGNITUDE (~((uint64_t)1 << 63))

static fence texts; /* what is parsed ends at a guard page */

static double of_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}

static uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, 8);
  return bits;
}

static void parse_is(const char *text, size_t size, uint64_t want) {
  double value = 0;
  char *copy = (char *)texts.end - size;
  int finite;
  memcpy(copy, text, size);
  finite = packbuf_i_parse_double(copy, size, &value);
  expect(bits_of(value) == want && finite == ((want & MAGNITUDE) != INFINITE),
         "%.*s%s: %016llX, not %016llX, finite %d", size > 150 ? 150 : (int)size, text, size > 150 ? "..." : "",
         (unsigned long long)bits_of(value), (unsigned long long)want, finite);
}

/* The text of a double, null-terminated; nothing behind the 24 characters it may take is touched. */
static size_t format(uint64_t bits, char text[40]) {
  size_t size;
  memset(text, '#', 40);
  size = packbuf_i_format_double(of_bits(bits), text);
  expect(size >= 3 && size <= 24 && memcmp(text + 24, "################", 16) == 0, "%016llX: length %zu",
         (unsigned long long)bits, size);
  text[size < 39 ? size : 39] = 0;
  return size;
}

/* What Python's repr makes of n digits of which the first counts 10^exponent. */
static void python(char *text, int negative, const char *digits, int n, int exponent) {
  int at = 0;
  if (negative) text[at++] = '-';
  if (exponent < -4 || exponent > 15) {
    sprintf(text + at, "%c%s%.*se%+03d", digits[0], n > 1 ? "." : "", n - 1, digits + 1, exponent);
    return;
  }
  if (exponent < 0) {
    at += sprintf(text + at, "0.");
    for (int i = -1; i > exponent; i--) text[at++] = '0';
  }
  for (int i = 0; i < n || i <= exponent; i++) {
    text[at++] = i < n ? digits[i] : '0';
    if (i == exponent) text[at++] = '.';
  }
  if (n <= exponent + 1) text[at++] = '0';
  text[at] = 0;
}

/* Back to the same bits, by this parser and the C library's. */
static void round_trip(uint64_t bits) {
  char text[40];
  const size_t size = format(bits, text);
  parse_is(text, size, bits);
  expect(bits_of(strtod(text, NULL)) == bits, "%s by strtod is not %016llX", text, (unsigned long long)bits);
}

/* As few digits as read back, the nearest of those, laid out as Python does. */
static void shortest(uint64_t bits) {
  char text[40], digits[40], again[64];
  int n = 0, exponent = 0, point = -1, power = 0;
  format(bits, text);
  for (const char *p = text; *p; p++) {
    if (*p == 'e') {
      power = atoi(p + 1);
      break;
    }
    if (*p == '.') point = n;
    else if (*p != '-') digits[n++] = *p;
  }
  exponent = power + (point < 0 ? n : point) - 1;
  while (n > 1 && digits[0] == '0') {
    memmove(digits, digits + 1, (size_t)--n);
    exponent--;
  }
  while (n > 1 && digits[n - 1] == '0') n--;
  digits[n] = 0;
  python(again, (int)(bits >> 63), digits, n, exponent);
  expect(strcmp(again, text) == 0, "%s laid out as %s", again, text);
  if ((bits & MAGNITUDE) == 0) return;
  if (n > 1) { /* n-1 digits, rounded down and up */
    uint64_t fewer = strtoull(digits, NULL, 10) / 10;
    for (int up = 0; up < 2; up++) {
      snprintf(again, sizeof again, "%llue%d", (unsigned long long)fewer + (unsigned)up, exponent - n + 2);
      expect(bits_of(strtod(again, NULL)) != (bits & MAGNITUDE), "%s is longer than %s", text, again);
    }
  }
  snprintf(again, sizeof again, "%.*e", n - 1, of_bits(bits & MAGNITUDE));
  if (n > 1) memmove(again + 1, again + 2, strlen(again) - 1);
  if (memcmp(again, digits, (size_t)n) != 0) { /* nearer, and yet past the closer border: only at a power of two */
    snprintf(again, sizeof again, "%.*e", n - 1, of_bits(bits & MAGNITUDE));
    expect((bits << 12) == 0 && bits_of(strtod(again, NULL)) != (bits & MAGNITUDE), "%s, but %s is nearer", text,
           again);
  }
}

static uint64_t random_finite(void) {
  uint64_t bits;
  do bits = random64();
  while ((bits & MAGNITUDE) >= INFINITE);
  return bits;
}

static void decimal_tables(void) {
  char text[40];
  for (unsigned i = 0; i < sizeof formats / sizeof formats[0]; i++) {
    format(formats[i].bits, text);
    expect(strcmp(text, formats[i].text) == 0, "%016llX: %s, not %s", (unsigned long long)formats[i].bits, text,
           formats[i].text);
    parse_is(formats[i].text, strlen(formats[i].text), formats[i].bits);
  }
  for (unsigned i = 0; i < sizeof parses / sizeof parses[0]; i++)
    parse_is(parses[i].text, strlen(parses[i].text), parses[i].bits);
}

static void decimal_hard(void) {
#if defined(FE_UPWARD) && defined(FE_DOWNWARD) && defined(FE_TOWARDZERO)
  static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
#endif
  begin("numbers: tables of hard cases");
  decimal_tables();
  verdict("");
#if defined(FE_UPWARD) && defined(FE_DOWNWARD) && defined(FE_TOWARDZERO)
  begin("numbers: the same in every rounding mode");
  for (unsigned i = 0; i < 3; i++) {
    expect(fesetround(modes[i]) == 0, "rounding mode %d", modes[i]);
    decimal_tables();
  }
  expect(fesetround(FE_TONEAREST) == 0, "back to nearest");
  verdict("");
#endif
}

/* ---- powers of ten against long arithmetic ---- */

typedef struct natural {
  uint32_t limb[40]; /* first the lowest */
} natural;

static int natural_bits(const natural *n) {
  for (int i = 39; i >= 0; i--)
    for (int bit = 31; bit >= 0; bit--)
      if (n->limb[i] >> bit & 1) return 32 * i + bit + 1;
  return 0;
}

static unsigned natural_bit(const natural *n, int bit) { return bit < 0 ? 0u : n->limb[bit / 32] >> bit % 32 & 1; }

/* to += n * factor * 2^(32 shift) */
static void natural_add(natural *to, const natural *n, uint32_t factor, int shift) {
  uint64_t carry = 0;
  for (int i = shift; i < 40; i++) {
    carry += (uint64_t)n->limb[i - shift] * factor + to->limb[i];
    to->limb[i] = (uint32_t)carry;
    carry >>= 32;
  }
}

static void natural_times_five(natural *n) {
  natural five = {{0}};
  natural_add(&five, n, 5, 0);
  *n = five;
}

/* high:low are the first 128 bits of 10^k, that is of 5^k, cut off. */
static void decimal_powers(void) {
  begin("numbers: the first 128 bits of all powers of ten");
  for (int sign = -1; sign <= 1; sign += 2) {
    natural five = {{1}};
    for (int k = 0; k <= (sign < 0 ? 351 : 350); k++) {
      const int bits = natural_bits(&five);
      uint64_t high, low;
      packbuf_i_pow10(sign * k, &high, &low);
      if (sign > 0 || k == 0) {
        uint64_t top[2] = {0, 0};
        for (int i = 0; i < 128; i++) top[i / 64] = top[i / 64] << 1 | natural_bit(&five, bits - 1 - i);
        expect(high == top[0] && low == top[1], "10^%d", k);
        expect(packbuf_i_log2_of_pow10(k) == bits - 1 + k, "logarithm of 10^%d", k);
      } else { /* they are floor(2^n / 5^k): their product with 5^k lies below 2^n, by less than 5^k */
        natural product = {{0}}, more;
        natural_add(&product, &five, (uint32_t)low, 0);
        natural_add(&product, &five, (uint32_t)(low >> 32), 1);
        natural_add(&product, &five, (uint32_t)high, 2);
        natural_add(&product, &five, (uint32_t)(high >> 32), 3);
        more = product;
        natural_add(&more, &five, 1, 0);
        expect(high >> 63 && natural_bits(&more) == natural_bits(&product) + 1, "10^-%d", k);
        expect(packbuf_i_log2_of_pow10(-k) == -bits - k, "logarithm of 10^-%d", k);
      }
      natural_times_five(&five);
    }
  }
  verdict("");
}

/* ---- the middle between two doubles, exactly: digits * 10^power ---- */

#define DIGITS 1200

typedef struct exact {
  char digits[DIGITS]; /* first the highest */
  size_t size;
  int power;
} exact;

static void exact_middle(exact *e, uint64_t below_bits) {
  const int biased = (int)(below_bits >> 52);
  uint64_t m = below_bits & (((uint64_t)1 << 52) - 1);
  int twos = (biased ? biased : 1) - 1076; /* of 2m + 1 */
  uint8_t reversed[DIGITS];
  size_t n = 0;
  if (biased) m |= (uint64_t)1 << 52;
  for (m = 2 * m + 1; m; m /= 10) reversed[n++] = (uint8_t)(m % 10);
  e->power = twos < 0 ? twos : 0; /* 2^-k is 5^k 10^-k */
  for (unsigned left = (unsigned)(twos < 0 ? -twos : twos); left;) {
    const unsigned step = left < 9 ? left : 9;
    uint32_t factor = 1, carry = 0;
    for (unsigned i = 0; i < step; i++) factor *= twos < 0 ? 5 : 2;
    for (size_t i = 0; i < n; i++) {
      carry += reversed[i] * factor;
      reversed[i] = (uint8_t)(carry % 10);
      carry /= 10;
    }
    for (; carry; carry /= 10) reversed[n++] = (uint8_t)(carry % 10);
    left -= step;
  }
  for (size_t i = 0; i < n; i++) e->digits[i] = (char)('0' + reversed[n - 1 - i]);
  e->size = n;
}

/* Parses digits * 10^power, laid out in one of several ways, both signs. */
static void exact_parse(const char *digits, size_t size, int power, uint64_t want) {
  static char text[4 * DIGITS];
  const size_t cut = 1 + below(size);
  size_t at = 0;
  const uint64_t sign = random64() & 1;
  while (size > 1 && *digits == '0') digits++, size--;
  if (sign) text[at++] = '-';
  switch (below(3)) {
    case 0: at += (size_t)sprintf(text + at, "%.*se%d", (int)size, digits, power); break;
    case 1:
      if (cut < size) {
        at += (size_t)sprintf(text + at, "%.*s.%.*sE%+d", (int)cut, digits, (int)(size - cut), digits + cut,
                              power + (int)(size - cut));
        break;
      }
      at += (size_t)sprintf(text + at, "%.*s.000e%d", (int)size, digits, power);
      break;
    default:
      if (power < 0 && (size_t)-power >= size) { /* no exponent at all */
        at += (size_t)sprintf(text + at, "0.");
        for (size_t i = size; i < (size_t)-power; i++) text[at++] = '0';
        at += (size_t)sprintf(text + at, "%.*s", (int)size, digits);
      } else {
        at += (size_t)sprintf(text + at, "0.000%.*se%d", (int)size, digits, power + (int)size + 3);
      }
  }
  text[at] = 0;
  parse_is(text, at, want | sign << 63);
#ifdef __GLIBC__ /* musl's is not exact among the subnormals */
  expect(bits_of(strtod(text, NULL)) == (want | sign << 63), "strtod disagrees on %.100s", text);
#endif
}

static void decimal_middle(uint64_t low) {
  static char digits[2 * DIGITS];
  exact e;
  const size_t zeros = below(900);
  size_t at;
  exact_middle(&e, low);
  exact_parse(e.digits, e.size, e.power, low + (low & 1)); /* ties to even */
  memcpy(digits, e.digits, e.size); /* a little more, far behind */
  memset(digits + e.size, '0', zeros);
  digits[e.size + zeros] = '1';
  exact_parse(digits, e.size + zeros + 1, e.power - (int)zeros - 1, low + 1);
  memcpy(digits, e.digits, e.size); /* a little less */
  for (at = e.size - 1; digits[at] == '0'; at--) digits[at] = '9';
  digits[at]--;
  memset(digits + e.size, '9', zeros + 1);
  exact_parse(digits, e.size + zeros + 1, e.power - (int)zeros - 1, low);
}

static void decimal_middles(void) {
  static const uint64_t lows[] = {0,
                                  1,
                                  2,
                                  3,
                                  0x000FFFFFFFFFFFFEu,
                                  0x000FFFFFFFFFFFFFu,
                                  0x0010000000000000u,
                                  0x0010000000000001u,
                                  0x001FFFFFFFFFFFFFu,
                                  0x0020000000000000u,
                                  0x3FEFFFFFFFFFFFFFu,
                                  0x3FF0000000000000u,
                                  0x4330000000000000u,
                                  0x433FFFFFFFFFFFFFu,
                                  0x4340000000000000u,
                                  0x4340000000000001u,
                                  0x43DFFFFFFFFFFFFFu,
                                  0x43EFFFFFFFFFFFFFu,
                                  0x43F0000000000000u,
                                  0x44B52D02C7E14AF6u,
                                  0x7FEFFFFFFFFFFFFEu,
                                  0x7FEFFFFFFFFFFFFFu};
  static char ones[DIGITS];
  begin("numbers: exact middles of two doubles, and a little more or less in up to 1600 digits");
  for (unsigned i = 0; i < sizeof lows / sizeof lows[0]; i++)
    for (int round = 0; round < 12; round++) decimal_middle(lows[i]);
  for (int round = 0; round < 400; round++) {
    uint64_t low = random_finite() & MAGNITUDE;
    if (round % 4 == 0) low = low >> 12 >> below(52); /* below the normal numbers */
    if (round % 4 == 1) low = bits_of((double)(random64() >> below(64)));
    if (round % 4 == 2) low = (uint64_t)(1023 - 100 + below(200)) << 52 | low >> 12;
    decimal_middle(low);
  }
  verdict("");
  begin("numbers: 800 digits, long zeros, digits at random against strtod");
  for (size_t n = 1; n <= 800; n += 1 + n / 16) {
    memset(ones, '1', n);
    ones[n] = 0;
    parse_is(ones, n, bits_of(strtod(ones, NULL)));
  }
  for (int round = 0; round < 20000; round++) {
    static const int sizes[] = {1, 2, 5, 15, 16, 17, 18, 19, 20, 21, 25, 40, 800};
    const int n = sizes[below(round % 64 ? 12 : 13)];
    static char text[2 * DIGITS];
    int at;
    text[0] = (char)('1' + below(9));
    text[1] = '.';
    for (at = 2; at <= n; at++) text[at] = (char)('0' + below(10));
    text[at++] = '0';
    sprintf(text + at, "e%d", round & 1 ? (int)below(700) - 350 : (int)below(50) - 25);
    parse_is(text, strlen(text), bits_of(strtod(text, NULL)));
  }
  memset(ones, '0', sizeof ones);
  ones[0] = '1';
  snprintf(ones + 1001, 32, "e-1000");
  parse_is(ones, strlen(ones), bits_of(1.0));
  memset(ones, '0', sizeof ones);
  ones[1] = '.';
  snprintf(ones + 1001, 32, "1e1000");
  parse_is(ones, strlen(ones), bits_of(1.0));
  verdict("");
}

static void decimal_round_trips(void) {
  char text[40];
  begin("numbers: 200000 random bit patterns, there and back");
  for (int i = 0; i < 200000; i++) {
    const uint64_t bits = random_finite();
    const size_t size = format(bits, text);
    parse_is(text, size, bits);
  }
  verdict("");
  begin("numbers: all powers of two and of ten and their neighbours, there and back and shortest");
  for (int power = -1074; power <= 1023; power++) {
    const uint64_t bits = power < -1022 ? (uint64_t)1 << (power + 1074) : (uint64_t)(power + 1023) << 52;
    for (int i = -1; i <= 1; i++) {
      const uint64_t near = (bits + (uint64_t)(int64_t)i) & MAGNITUDE;
      round_trip(near | (uint64_t)(power & 1) << 63);
      shortest(near | (uint64_t)(power & 1) << 63);
    }
  }
  for (int power = -400; power <= 400; power++) {
    uint64_t bits;
    snprintf(text, sizeof text, "1e%d", power);
    bits = bits_of(strtod(text, NULL));
    parse_is(text, strlen(text), bits);
    if (bits == 0 || bits == INFINITE) continue;
    for (int i = -1; i <= 1; i++) {
      const uint64_t near = bits + (uint64_t)(int64_t)i;
      round_trip(near);
      shortest(near);
    }
    if (power > -308) { /* the power itself gives the digit back */
      char want[40];
      python(want, 0, "1", 1, power);
      format(bits, text);
      expect(strcmp(text, want) == 0, "1e%d: %s", power, text);
    }
  }
  verdict("");
  begin("numbers: no shorter text reads back, none as short is nearer");
  for (int i = 0; i < 20000; i++) {
    static const double scales[] = {1e-6, 1e-3, 1, 1e3, 1e9, 1e15, 1e18};
    uint64_t bits = random_finite();
    if (i % 4 == 0) bits = bits_of((double)below(1000000) / 1000 * scales[below(7)]);
    if (i % 4 == 1) bits = bits_of((double)(random64() >> 11) / 9007199254740992.0 * scales[below(7)]);
    if (i % 16 == 2) bits >>= 12 + below(52);
    shortest(bits);
    round_trip(bits);
  }
  verdict("");
}

static void integers(void) {
  static const struct {
    const char *text;
    int fits; /* 1: int64; 2: uint64 only; 0: neither */
  } limits[] = {{"0", 1},
                {"-0", 1},
                {"1", 1},
                {"-1", 1},
                {"9223372036854775806", 1},
                {"9223372036854775807", 1},
                {"9223372036854775808", 2},
                {"-9223372036854775807", 1},
                {"-9223372036854775808", 1},
                {"-9223372036854775809", 0},
                {"-9223372036854775818", 0},
                {"9999999999999999999", 2},
                {"10000000000000000000", 2},
                {"18446744073709551609", 2},
                {"18446744073709551614", 2},
                {"18446744073709551615", 2},
                {"18446744073709551616", 0},
                {"18446744073709551620", 0},
                {"18446744073709551625", 0},
                {"-18446744073709551615", 0},
                {"-18446744073709551616", 0},
                {"20000000000000000000", 0},
                {"99999999999999999999", 0},
                {"184467440737095516150", 0},
                {"-184467440737095516160", 0},
                {"36893488147419103232", 0},
                {"100000000000000000000000000000000000000", 0}};
  char text[40], want[40];
  begin("numbers: integers at their limits");
  for (unsigned i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    int64_t s = 77;
    uint64_t u = 77;
    const size_t size = strlen(limits[i].text);
    const int fits = packbuf_i_parse_integer(memcpy(texts.end - size, limits[i].text, size), size, &s, &u);
    expect(fits == limits[i].fits, "%s: %d, not %d", limits[i].text, fits, limits[i].fits);
    if (fits == 1) expect(s == strtoll(limits[i].text, NULL, 10) && u == 77, "%s: %lld", limits[i].text, (long long)s);
    if (fits == 2)
      expect(u == strtoull(limits[i].text, NULL, 10) && s == 77, "%s: %llu", limits[i].text, (unsigned long long)u);
  }
  verdict("");
  begin("numbers: u64 and i64 there and back");
  for (uint64_t k = 0; k < 60000; k++) {
    const uint64_t v = k < 64    ? (uint64_t)1 << k
                       : k < 128 ? ((uint64_t)1 << (k - 64)) - 1
                       : k < 400 ? ~(k - 128)
                       : k < 600 ? k - 400
                                 : random64() >> below(64);
    int64_t s = 77;
    uint64_t u = 77;
    size_t size;
    int fits;
    memset(text, '#', sizeof text);
    size = packbuf_i_format_u64(v, text);
    snprintf(want, sizeof want, "%llu", (unsigned long long)v);
    expect(size == strlen(want) && memcmp(text, want, size) == 0 && text[size] == '#', "u64 %s: %.*s", want, (int)size,
           text);
    fits = packbuf_i_parse_integer(memcpy(texts.end - size, text, size), size, &s, &u);
    expect(v >> 63 ? fits == 2 && u == v : fits == 1 && s == (int64_t)v, "u64 %s: %d", want, fits);
    memset(text, '#', sizeof text);
    size = packbuf_i_format_i64((int64_t)v, text);
    snprintf(want, sizeof want, "%lld", (long long)(int64_t)v);
    expect(size == strlen(want) && memcmp(text, want, size) == 0 && text[size] == '#', "i64 %s: %.*s", want, (int)size,
           text);
    fits = packbuf_i_parse_integer(memcpy(texts.end - size, text, size), size, &s, &u);
    expect(fits == 1 && s == (int64_t)v, "i64 %s: %d", want, fits);
  }
  verdict("");
}

static void numbers(void) {
  texts = fence_of(4 * DIGITS);
  decimal_hard();
  decimal_powers();
  decimal_middles();
  decimal_round_trips();
  integers();
}

int main(void) {
  page = (size_t)sysconf(_SC_PAGESIZE);
  signal(SIGSEGV, crashed);
  signal(SIGBUS, crashed);
  crc();
  gather();
  out();
  utf8();
  numbers();
  return tap_plan_done();
}
