/* tests/processors.c: which kernels run. For every subset of what processors may have: the choice is the best that the
 * subset can run. For every subset of what this one has: a batch is packed and read through the public calls as if that
 * were all, what was chosen is seen to run, and the bytes are the same. Every set of kernels, the one that SIMDe makes
 * too, writes the packed vectors of the spec as they are.
 * May use: internals.h, tests/repack.c. Must not know: how a kernel works. */
#include <stddef.h>
#include <stdint.h>

/* What the library takes the processor for, and what stands between its choices and their users. */
static unsigned processor;
struct packbuf_i_lane_set;
struct packbuf_i_crc_kernel;
typedef void (*gather_function)(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead);
typedef size_t (*utf8_function)(const uint8_t *data, size_t size);
typedef uint64_t (*comparer_function)(const uint8_t *a, const uint8_t *b, uint64_t size);
static const struct packbuf_i_lane_set *chosen_lanes(const struct packbuf_i_lane_set *set);
static const struct packbuf_i_crc_kernel *chosen_crc(const struct packbuf_i_crc_kernel *kernel);
static gather_function chosen_gather(gather_function gather);
static gather_function chosen_stream(gather_function gather);
static inline utf8_function chosen_utf8(utf8_function scan);
static comparer_function chosen_comparer(comparer_function comparer);
#define PACKBUF_I_CPU(asked) (processor & (asked))
#define PACKBUF_I_CHOSEN(kind, kernels) chosen_##kind(kernels)

#if defined(__has_include)
#if __has_include(<simde/x86/sse4.2.h>)
#define PACKBUF_SIMDE 1
#endif
#endif
#include "internals.h"
#define main repack_main
#include "repack.c"
#undef main

/* ---- the kernels under test sit behind these, which count ---- */

static const packbuf_i_lane_set *forced, *lanes; /* forced: whatever is chosen */
static const packbuf_i_crc_kernel *crc;
static gather_function gather;
static utf8_function utf8;
static comparer_function comparer;
static unsigned long packs, unpacks, others, checksums, gathers, texts, compares, switches;

static const packbuf_i_lanes *behind(unsigned T) { return &lanes->of[T == 8 ? 0 : T == 16 ? 1 : T == 32 ? 2 : 3]; }

static uint64_t packbuf_i_spy_pack(unsigned T, const uint8_t *units, unsigned rows, const packbuf_i_codes *codes,
                                   uint8_t *words, const uint8_t *ahead, int stream) {
  packs++;
  return behind(T)->pack(units, rows, codes, words, ahead, stream);
}
static void packbuf_i_spy_unpack(unsigned T, const uint8_t *words, unsigned first, unsigned rows,
                                 const packbuf_i_codes *codes, uint8_t *units, int stream) {
  unpacks++;
  behind(T)->unpack(words, first, rows, codes, units, stream);
}
static void packbuf_i_spy_scan(unsigned T, const uint8_t *units, unsigned rows, packbuf_i_scan_kind kind,
                               packbuf_i_spread *spread) {
  others++;
  behind(T)->scan(units, rows, kind, spread);
}
static uint64_t packbuf_i_spy_dense(unsigned T, const uint8_t *units, unsigned rows, uint64_t fill) {
  others++;
  return behind(T)->dense(units, rows, fill);
}
static unsigned packbuf_i_spy_bends(unsigned T, const uint8_t *units, unsigned rows, uint8_t *bitmap) {
  others++;
  return behind(T)->bends(units, rows, bitmap);
}
static unsigned packbuf_i_spy_along(unsigned T, const uint8_t *units, unsigned count, uint64_t value, uint64_t step) {
  others++;
  return behind(T)->along(units, count, value, step);
}
static void packbuf_i_spy_line(unsigned T, uint8_t *units, unsigned count, uint64_t value, uint64_t step, int stream) {
  others++;
  behind(T)->line(units, count, value, step, stream);
}
static unsigned packbuf_i_spy_split(unsigned T, const uint8_t *units, unsigned rows, unsigned width, uint8_t *words,
                                    uint8_t *bitmap, uint8_t *high, uint64_t *all, const uint8_t *ahead) {
  packs++;
  return behind(T)->split(units, rows, width, words, bitmap, high, all, ahead);
}
static unsigned packbuf_i_spy_join(unsigned T, const uint8_t *words, const uint8_t *bitmap, const uint8_t *high,
                                   unsigned high_size, unsigned first, unsigned rows, unsigned width, uint8_t *units,
                                   int stream) {
  unpacks++;
  return behind(T)->join(words, bitmap, high, high_size, first, rows, width, units, stream);
}
static void packbuf_i_spy_copy(uint8_t *to, const uint8_t *from, size_t size, int stream) {
  lanes->copy(to, from, size, stream);
}

PACKBUF_I_LANES_OF(spy, 8, )
PACKBUF_I_LANES_OF(spy, 16, )
PACKBUF_I_LANES_OF(spy, 32, )
PACKBUF_I_LANES_OF(spy, 64, )
PACKBUF_I_LANES_SPLIT(spy, 32, )
PACKBUF_I_LANES_SPLIT(spy, 64, )
static const packbuf_i_lane_set spy_set = {"spy", PACKBUF_I_LANES_ENTRIES(spy, spy), packbuf_i_spy_copy, 0};

static uint32_t spy_sum(uint32_t value, const void *data, size_t size) {
  checksums++;
  return crc->crc(value, data, size);
}
static uint32_t spy_copy_sum(uint32_t value, void *dst, const void *src, size_t size, int stream, const void *ahead) {
  checksums++;
  return crc->copy_crc(value, dst, src, size, stream, ahead);
}
static const packbuf_i_crc_kernel spy_kernel = {"spy", spy_sum, spy_copy_sum, 0};

static void spy_gather(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t *ahead) {
  gathers++;
  gather(dst, src, size, ahead);
}
static size_t spy_scan(const uint8_t *data, size_t size) {
  texts++;
  return utf8(data, size);
}
static uint64_t spy_comparer(const uint8_t *a, const uint8_t *b, uint64_t size) {
  compares++;
  return comparer(a, b, size);
}

static const packbuf_i_lane_set *chosen_lanes(const packbuf_i_lane_set *set) {
  if (forced) set = forced;
  switches += lanes != NULL && lanes != set;
  lanes = set;
  return &spy_set;
}
static const packbuf_i_crc_kernel *chosen_crc(const packbuf_i_crc_kernel *kernel) {
  switches += crc != NULL && crc != kernel;
  crc = kernel;
  return &spy_kernel;
}
static gather_function chosen_gather(gather_function function) {
  switches += gather != NULL && gather != function;
  gather = function;
  return spy_gather;
}
static gather_function chosen_stream(gather_function function) { return function; } /* of batches larger than these */
/* inline: only x86 has several to choose from */
static inline utf8_function chosen_utf8(utf8_function scan) {
  utf8 = scan;
  return spy_scan;
}

static comparer_function chosen_comparer(comparer_function function) {
  switches += comparer != NULL && comparer != function;
  comparer = function;
  return spy_comparer;
}

static void forget(void) {
  lanes = NULL, crc = NULL, gather = NULL, utf8 = NULL, comparer = NULL;
  packs = unpacks = others = checksums = gathers = texts = compares = switches = 0;
}

/* ---- every subset of what processors may have ---- */

/* Of two tables that end with the best, whether `index` is the last that needs no more than there is. */
#define IS_BEST(table, entries, index, has) (((table)[index].needs & ~(has)) == 0 && is_best(has, index, entries))
static const unsigned *needs_of;

static int is_best(unsigned has, unsigned index, unsigned entries) {
  for (unsigned i = index + 1; i < entries; i++)
    if ((needs_of[i] & ~has) == 0) return 0;
  return 1;
}

#if PACKBUF_I_X86
#define TEXT_OF(x) TEXT_OF_THIS(x)
#define TEXT_OF_THIS(x) #x

/* The features that a `target` attribute names. */
static unsigned named(const char *attribute) {
  unsigned features = 0;
  char text[200];
  const char *from = strchr(attribute, '"');
  snprintf(text, sizeof text, ",%s", from ? from + 1 : "");
  text[strcspn(text, "\\\"")] = ',';
#define PACKBUF_I_X(name, bit, feature) \
  if (strstr(text, "," feature ",")) features |= 1u << bit;
  PACKBUF_I_CPU_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
  return features;
}
#endif

/* By what the attributes of the comparers name. */
static comparer_function best_comparer(unsigned has) {
#if PACKBUF_I_X86
  const unsigned avx512 = named(TEXT_OF(PACKBUF_I_COMMON_AVX512)), avx2 = named(TEXT_OF(PACKBUF_I_COMMON_AVX2));
  if ((has & avx512) == avx512) return packbuf_i_common_avx512;
  if ((has & avx2) == avx2) return packbuf_i_common_avx2;
#endif
  (void)has;
  return packbuf_i_common_plain;
}

static void every_choice(void) {
  unsigned of_sets[PACKBUF_I_LANE_SETS], of_kernels[PACKBUF_I_CRC_KERNELS];
  unsigned long wrong_sets = 0, wrong_kernels = 0, wrong_copies = 0, chain = 0;
  unsigned sets = 0, kernels = 0; /* those chosen at least once */
  for (unsigned i = 0; i < PACKBUF_I_LANE_SETS; i++) of_sets[i] = packbuf_i_lane_sets[i].needs;
  for (unsigned i = 0; i < PACKBUF_I_CRC_KERNELS; i++) of_kernels[i] = packbuf_i_crc_kernels[i].needs;
  for (unsigned i = 1; i < PACKBUF_I_LANE_SETS; i++) chain += (of_sets[i - 1] & ~of_sets[i]) != 0;
  for (unsigned i = 1; i < PACKBUF_I_CRC_KERNELS; i++) chain += (of_kernels[i - 1] & ~of_kernels[i]) != 0;
  tap_ok(chain == 0 && of_sets[0] == 0 && of_kernels[0] == 0,
         "plain needs nothing, every other kernel what those before it need");
  for (unsigned has = 0; has <= PACKBUF_I_CPU_ALL; has++) {
    const unsigned set = packbuf_i_lane_set_choose(has), kernel = packbuf_i_crc_choose(has);
    needs_of = of_sets;
    wrong_sets += !IS_BEST(packbuf_i_lane_sets, PACKBUF_I_LANE_SETS, set, has);
    needs_of = of_kernels;
    wrong_kernels += !IS_BEST(packbuf_i_crc_kernels, PACKBUF_I_CRC_KERNELS, kernel, has);
#if PACKBUF_I_X86
    wrong_copies += packbuf_i_gather_choose(has) != (has & PACKBUF_I_CPU_AVX512F ? packbuf_i_gather_avx512
                                                     : has & PACKBUF_I_CPU_AVX   ? packbuf_i_gather_avx
                                                                                 : packbuf_i_gather_sse2);
    wrong_copies +=
        packbuf_i_stream_choose(has) != (has & PACKBUF_I_CPU_AVX ? packbuf_i_stream_avx : packbuf_i_stream_sse2);
#else
    wrong_copies += packbuf_i_gather_choose(has) != packbuf_i_gather_plain ||
                    packbuf_i_stream_choose(has) != packbuf_i_gather_plain;
#endif
    wrong_copies += packbuf_i_comparer_choose(has) != best_comparer(has);
    /* as those ask who run them */
    processor = has;
    forced = NULL;
    wrong_sets += packbuf_i_lane_set_best() != &spy_set || lanes != &packbuf_i_lane_sets[set];
    wrong_sets += packbuf_i_lane_set_at(set) != lanes || packbuf_i_lane_set_at(set + 1) != NULL;
    wrong_kernels += packbuf_i_crc_kernel_best() != &spy_kernel || crc != &packbuf_i_crc_kernels[kernel];
    sets |= 1u << set;
    kernels |= 1u << kernel;
  }
  tap_ok(wrong_sets == 0, "of %u subsets of features each gets the best set of kernels that it can run",
         PACKBUF_I_CPU_ALL + 1u);
  tap_ok(wrong_kernels == 0, "and the best kernel of checksums");
  tap_ok(wrong_copies == 0, "and the best copies and comparisons");
  for (unsigned i = 0; i < PACKBUF_I_LANE_SETS; i++)
    tap_note("set %s: needs %x%s", packbuf_i_lane_sets[i].name, of_sets[i],
             sets >> i & 1 ? "" : ", chosen by no processor");
  for (unsigned i = 0; i < PACKBUF_I_CRC_KERNELS; i++)
    tap_note("checksums %s: needs %x", packbuf_i_crc_kernels[i].name, of_kernels[i]);
  tap_ok(kernels == (1u << PACKBUF_I_CRC_KERNELS) - 1, "every kernel of checksums is some processor's best");
}

#if PACKBUF_I_X86
static unsigned needs_of_set(const char *name) {
  for (unsigned i = 0; i < PACKBUF_I_LANE_SETS; i++)
    if (strcmp(packbuf_i_lane_sets[i].name, name) == 0) return packbuf_i_lane_sets[i].needs;
  return UINT32_MAX;
}

static void attributes(void) {
  const unsigned pext = PACKBUF_I_CPU_FAST_PEXT;
  tap_ok(named(TEXT_OF(PACKBUF_I_LANES_AVX2)) == needs_of_set("avx2slow") &&
             (named(TEXT_OF(PACKBUF_I_LANES_AVX2)) | pext) == needs_of_set("avx2") &&
             (named(TEXT_OF(PACKBUF_I_LANES_AVX512)) | pext) == needs_of_set("avx512") &&
             (named(TEXT_OF(PACKBUF_I_LANES_VBMI2)) | pext) == needs_of_set("avx512vbmi2") &&
             needs_of_set("vector") == 0,
         "sets of kernels need what they are compiled for");
  tap_ok(named(TEXT_OF(PACKBUF_I_CRC_SSE42)) == packbuf_i_crc_kernels[1].needs &&
             named(TEXT_OF(PACKBUF_I_CRC_AVX512)) == packbuf_i_crc_kernels[2].needs &&
             named(TEXT_OF(PACKBUF_I_UTF8_AVX2_TARGET)) == PACKBUF_I_CPU_AVX2,
         "checksums and UTF-8 too");
}
#endif

/* ---- every subset of what this processor has ---- */

enum { N = 2500, FIELDS = 6, TEXTS = 40 };
static int64_t bits64[2][N];
static int32_t bits32[2][N];
static uint16_t bits16[N];
static uint8_t bits8[N];
static char letters[TEXTS][200];
static packbuf_text text_cells[N];

/* Of each width, in every mode that there is. */
static void make_columns(void) {
  uint64_t x = 88172645463325252u;
  for (unsigned i = 0; i < TEXTS; i++)
    for (unsigned k = 0; k + 2 < sizeof letters[0]; k += 2)
      memcpy(letters[i] + k, k % 7 < i % 8 ? "\xC3\xA9" : "ab", 2);
  for (unsigned i = 0; i < N; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    bits64[0][i] = (int64_t)(i / 350 % 2 ? 1000 + 3 * i : x & 255);
    bits64[1][i] = (int64_t)(x >> 50 | (x % 5 ? 0 : (x >> 20 & 255) << 14));
    bits32[0][i] = (int32_t)(x >> 9 & (x % 7 ? 0xFFF : 0xFFFFF));
    bits32[1][i] = i / 250 % 3 ? (int32_t)(0x3F000000u | (x >> 8 & 0xFFFFFF)) : 0;
    bits16[i] = (uint16_t)(x % 3 ? 0x3F80 | (x >> 40 & 127) : 0xBF00 | (x >> 30 & 7));
    bits8[i] = (uint8_t)(x >> 33 & 7);
    text_cells[i].data = letters[i % TEXTS];
    text_cells[i].size = 2 * (x >> 11 & 63);
  }
}

static const struct {
  const char *name;
  const void *data;
  uint8_t code, bits;
} fields[FIELDS] = {{"a", bits64[0], PACKBUF_DTYPE_INT, 64}, {"b", bits64[1], PACKBUF_DTYPE_INT, 64},
                    {"c", bits32[0], PACKBUF_DTYPE_INT, 32}, {"d", bits32[1], PACKBUF_DTYPE_FLOAT, 32},
                    {"e", bits16, PACKBUF_DTYPE_BFLOAT, 16}, {"f", bits8, PACKBUF_DTYPE_UINT, 8}};

static packbuf_status pack_all(uint8_t packing, packbuf_arena *arena, void **data, uint64_t *size) {
  packbuf_options options = packbuf_default_options();
  packbuf_batch batch;
  packbuf_status status;
  uint64_t shape[1] = {N};
  options.packing = packing;
  status = packbuf_batch_init(&batch, N, arena, &options, &error);
  for (unsigned i = 0; !status && i < FIELDS; i++) {
    packbuf_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    tensor.data = fields[i].data;
    tensor.dtype = packbuf_dtype_of(fields[i].code, fields[i].bits);
    tensor.rank = 1;
    tensor.shape = shape;
    status = packbuf_add_tensor(&batch, fields[i].name, &tensor, NULL, &error);
  }
  if (!status) status = packbuf_add_strings(&batch, "text", text_cells, &error);
  return status ? status : packbuf_pack(&batch, data, size, &error);
}

/* Everything back, by columns. */
static int read_all(const void *data, uint64_t size) {
  static uint8_t back[N * 8];
  packbuf_view view;
  if (packbuf_open(&view, data, (size_t)size, PACKBUF_OPEN_EXACT, NULL, &error) ||
      packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error))
    return 0;
  for (uint32_t i = 0; i < FIELDS; i++) {
    packbuf_column column;
    if (packbuf_open_column(&view, i, &column, &error) ||
        packbuf_copy_elements(&view, &column.data, 0, N, back, sizeof back, &error))
      return 0;
    if (memcmp(back, fields[i].data, (size_t)N * fields[i].bits / 8) != 0) return 0;
  }
  return 1;
}

static const uint8_t packings[3] = {PACKBUF_PACKING_BALANCED, PACKBUF_PACKING_FASTEST, PACKBUF_PACKING_SMALLEST};
static uint8_t *want[3];
static uint64_t want_size[3];

/* Packs and reads; NULL, or what is not as it should be. */
static const char *there_and_back(unsigned k) {
  packbuf_arena arena;
  void *data = NULL;
  uint64_t size = 0;
  const char *wrong = NULL;
  packbuf_arena_init(&arena, NULL);
  forget();
  if (pack_all(packings[k], &arena, &data, &size)) wrong = error.message;
  else if (want[k] && (size != want_size[k] || memcmp(data, want[k], (size_t)size) != 0)) wrong = "other bytes";
  else if (!read_all(data, size)) wrong = error.code ? error.message : "other elements";
  else if (!want[k]) {
    want[k] = (uint8_t *)malloc((size_t)size);
    if (want[k]) memcpy(want[k], data, (size_t)size);
    want_size[k] = size;
  }
  packbuf_arena_free(&arena);
  if (!wrong && (packs == 0 || unpacks == 0 || others == 0 || checksums == 0 || gathers == 0 || compares == 0))
    wrong = "something did not run";
  if (!wrong && switches) wrong = "other kernels ran too";
  return wrong;
}

static void every_processor(unsigned here) {
  unsigned long runs = 0, failed = 0, sets[16] = {0}, kernels[16] = {0};
  unsigned has = here;
  forced = NULL;
  for (;;) {
    const char *wrong;
    processor = has;
    wrong = there_and_back(has == here || TAP_STEP == 1 ? (unsigned)(runs % 3) : 0);
    if (!wrong && (lanes != &packbuf_i_lane_sets[packbuf_i_lane_set_choose(has)] ||
                   crc != &packbuf_i_crc_kernels[packbuf_i_crc_choose(has)]))
      wrong = "not the set that was chosen";
    if (!wrong && gather != packbuf_i_gather_choose(has)) wrong = "not the copies that were chosen";
    if (!wrong && comparer != packbuf_i_comparer_choose(has)) wrong = "not the comparison that was chosen";
    if (!wrong && (texts > 0) != (PACKBUF_I_X86 && has & PACKBUF_I_CPU_AVX2)) wrong = "not the UTF-8 that was chosen";
    if (wrong && failed++ == 0)
      tap_note("features %x: %s (%s, %s)", has, wrong, lanes ? lanes->name : "", crc ? crc->name : "");
    runs++;
    if (lanes) sets[lanes - packbuf_i_lane_sets]++;
    if (crc) kernels[crc - packbuf_i_crc_kernels]++;
    if (has == 0) break;
    has = (has - 1) & here;
  }
  for (unsigned i = 0; i < PACKBUF_I_LANE_SETS; i++)
    tap_note("set %s ran for %lu subsets", packbuf_i_lane_sets[i].name, sets[i]);
  for (unsigned i = 0; i < PACKBUF_I_CRC_KERNELS; i++)
    tap_note("checksums %s ran for %lu subsets", packbuf_i_crc_kernels[i].name, kernels[i]);
  tap_ok(
      failed == 0,
      "of %lu subsets of the features of this processor each runs the kernels chosen for it, to the same bytes and back",
      runs);
}

/* ---- every set, whatever would be chosen ---- */

static void every_set(unsigned here) {
  const char *root = "spec/vectors";
  processor = here;
  for (unsigned i = 0; i < PACKBUF_I_LANE_SETS; i++) {
    const char *wrong = NULL;
    forced = &packbuf_i_lane_sets[i];
    if (forced->needs & ~here) {
      tap_note("set %s: not on this processor", forced->name);
      continue;
    }
    for (unsigned k = 0; k < 3 && !wrong; k++) {
      wrong = there_and_back(k);
      if (!wrong && lanes != forced) wrong = "not forced";
    }
    tap_ok(wrong == NULL, "set %s: forced, it runs, to the same bytes and back (%s)", forced->name,
           wrong ? wrong : "packs, unpacks, scans");
    forget();
    repack_all(root, "canonical_packed.txt", 15);
    tap_ok(lanes == forced && packs > 0 && unpacks > 0 && switches == 0,
           "set %s: it was the one that wrote these vectors", forced->name);
  }
  forced = NULL;
}

int main(void) {
  const unsigned here = packbuf_i_cpu_has(PACKBUF_I_CPU_ALL);
  tap_note("features of this processor: %x, for which are chosen: set %s, checksums %s", here,
           packbuf_i_lane_sets[packbuf_i_lane_set_choose(here)].name,
           packbuf_i_crc_kernels[packbuf_i_crc_choose(here)].name);
#if PACKBUF_SIMDE
  tap_ok(PACKBUF_I_LANES_SIMDE == PACKBUF_I_LANES_VECTORS, "the set simde is there where there are vectors");
#else
  tap_skip("no SIMDe (Debian: libsimde-dev)");
#endif
  make_columns();
  every_choice();
#if PACKBUF_I_X86
  attributes();
#endif
  processor = 0;
  forced = &packbuf_i_lane_sets[0];
  for (unsigned k = 0; k < 3; k++) {
    const char *wrong = there_and_back(k);
    tap_ok(wrong == NULL && want[k] != NULL && lanes == forced, "packing %u in plain C: %lu bytes (%s)", packings[k],
           (unsigned long)want_size[k], wrong ? wrong : "and back");
  }
  every_processor(here);
  every_set(here);
  for (unsigned k = 0; k < 3; k++) free(want[k]);
  return tap_plan_done();
}
