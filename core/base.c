/* core/base.c: the few helpers that every other room of the implementation uses: little-endian loads and stores,
 * checked arithmetic, the groups of codecs, the one way to fail, and the sinks that encoders push bytes into.
 * May use: core/status.h, the numbers of codecs. Must not know: any other room. */

#include <string.h>

/* Whether this is an x86 processor whose intrinsics the compiler has. */
#if !PACKBUF_NO_SIMD && defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#define PACKBUF_I_X86 1
#include <immintrin.h>
#else
#define PACKBUF_I_X86 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PACKBUF_I_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define PACKBUF_I_UNLIKELY(x) (x)
#endif

/* Loads the line at an address, which need not be valid, into the cache. GCC drops calls of functions that do nothing
 * else, so it is told of an effect. */
#if defined(__GNUC__) || defined(__clang__)
#define PACKBUF_I_PREFETCH(address) \
  do {                              \
    __builtin_prefetch(address);    \
    __asm__ volatile("");           \
  } while (0)
#else
#define PACKBUF_I_PREFETCH(address) ((void)(address))
#endif

/* Of what is hardly ever called: kept out of those who call it. */
#if defined(__GNUC__) || defined(__clang__)
#define PACKBUF_I_RARE __attribute__((noinline, cold))
#else
#define PACKBUF_I_RARE
#endif

/* Hides where a fetched value came from: the compiler can then not fetch it a second time instead of keeping it. */
#if defined(__GNUC__) || defined(__clang__)
#define PACKBUF_I_FETCHED(x) __asm__ volatile("" : "+r"(x))
#define PACKBUF_I_FETCHED_STRUCT(x) __asm__ volatile("" : "+m"(x))
#else
#define PACKBUF_I_FETCHED(x) ((void)0)
#define PACKBUF_I_FETCHED_STRUCT(x) ((void)0)
#endif

static uint16_t packbuf_i_load16(const void *p) {
  uint8_t b[2];
  memcpy(b, p, 2);
  return (uint16_t)(b[0] | (unsigned)b[1] << 8);
}

static uint32_t packbuf_i_load32(const void *p) {
  uint8_t b[4];
  memcpy(b, p, 4);
  return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint64_t packbuf_i_load64(const void *p) {
  uint8_t b[8];
  memcpy(b, p, 8);
  return (uint64_t)b[0] | (uint64_t)b[1] << 8 | (uint64_t)b[2] << 16 | (uint64_t)b[3] << 24 | (uint64_t)b[4] << 32 |
         (uint64_t)b[5] << 40 | (uint64_t)b[6] << 48 | (uint64_t)b[7] << 56;
}

static void packbuf_i_store16(void *p, uint16_t v) {
  uint8_t b[2];
  b[0] = (uint8_t)v;
  b[1] = (uint8_t)(v >> 8);
  memcpy(p, b, 2);
}

static void packbuf_i_store32(void *p, uint32_t v) {
  uint8_t b[4];
  b[0] = (uint8_t)v, b[1] = (uint8_t)(v >> 8), b[2] = (uint8_t)(v >> 16), b[3] = (uint8_t)(v >> 24);
  memcpy(p, b, 4);
}

static void packbuf_i_store64(void *p, uint64_t v) { /* no loop: compilers make one store of this */
  uint8_t b[8];
  b[0] = (uint8_t)v, b[1] = (uint8_t)(v >> 8), b[2] = (uint8_t)(v >> 16), b[3] = (uint8_t)(v >> 24);
  b[4] = (uint8_t)(v >> 32), b[5] = (uint8_t)(v >> 40), b[6] = (uint8_t)(v >> 48), b[7] = (uint8_t)(v >> 56);
  memcpy(p, b, 8);
}

static int packbuf_i_big_endian(void) {
  const uint16_t one = 1;
  uint8_t first;
  memcpy(&first, &one, 1);
  return first == 0;
}

static unsigned packbuf_i_count_ones(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555u;
  bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
  bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
  return (unsigned)(bits * 0x0101010101010101u >> 56);
}

/* The place of the lowest bit that is set; bits is not 0. */
static unsigned packbuf_i_first_set(uint64_t bits) {
#if defined(__GNUC__) || defined(__clang__)
  return (unsigned)__builtin_ctzll(bits);
#else
  unsigned n = 0;
  for (; !(bits & 1); bits >>= 1) n++;
  return n;
#endif
}

/* How many bits are set. */
static unsigned packbuf_i_bits_set(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555u;
  bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
  return (unsigned)(((bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u >> 56);
}

/* How many bits a number takes: 0 for 0. */
static unsigned packbuf_i_bits_of(uint64_t number) {
#if defined(__GNUC__) || defined(__clang__)
  return number == 0 ? 0 : 64 - (unsigned)__builtin_clzll(number);
#else
  unsigned n = 0;
  for (; number != 0; number >>= 1) n++;
  return n;
#endif
}

/* Checked arithmetic: 1 and the result in *out, or 0 when it would not fit. */
static int packbuf_i_add(uint64_t a, uint64_t b, uint64_t *out) {
  *out = a + b;
  return *out >= a;
}

static int packbuf_i_mul(uint64_t a, uint64_t b, uint64_t *out) {
  *out = a * b;
  return a == 0 || b <= UINT64_MAX / a;
}

/* The first bytes of a packed buffer. */
static const uint8_t packbuf_i_magic[8] = {0x89, 0x50, 0x42, 0x55, 0x46, 0x0D, 0x0A, 0x1A};

/* Each chunk of the data section has a checksum; the last one may be shorter. */
#define PACKBUF_I_CHUNK ((uint64_t)65536)

static uint64_t packbuf_i_chunks(uint64_t data_length) {
  return data_length / PACKBUF_I_CHUNK + (data_length % PACKBUF_I_CHUNK != 0);
}

/* Bytes from which non-temporal stores pay: more than half a usual last-level cache. */
#define PACKBUF_I_STREAM_FROM ((uint64_t)16 << 20)

/* The codecs of numbers; those of them whose cells each have a shape of their own. */
static int packbuf_i_numeric(unsigned codec) {
  return codec >= PACKBUF_CODEC_NDARRAY && codec <= PACKBUF_CODEC_TYPED_RAGGED;
}

static int packbuf_i_ragged_numbers(unsigned codec) {
  return codec == PACKBUF_CODEC_RAGGED_TENSOR || codec == PACKBUF_CODEC_TYPED_RAGGED;
}

/* Fills the error, when there is one, and returns the status: `return packbuf_i_fail(...)`. */
static packbuf_status packbuf_i_fail(packbuf_error *error, packbuf_status code, const char *message, uint64_t offset,
                                     uint64_t row) {
  if (error) {
    error->code = code;
    error->rule = PACKBUF_RULE_NONE;
    error->message = message;
    error->offset = offset;
    error->row = row;
    error->fragment = PACKBUF_NOWHERE;
    error->needed = PACKBUF_NOWHERE;
    error->path[0] = error->expected[0] = error->found[0] = 0;
  }
  return code;
}

/* The same where `needed` bytes were wanted and fewer are there. */
static packbuf_status packbuf_i_too_small(packbuf_error *error, const char *message, uint64_t offset, uint64_t needed) {
  packbuf_i_fail(error, PACKBUF_CAPACITY, message, offset, PACKBUF_NOWHERE);
  if (error) error->needed = needed;
  return PACKBUF_CAPACITY;
}

static packbuf_status packbuf_i_rule_status(packbuf_rule rule) {
  switch (rule) {
#define PACKBUF_I_X(id, number, status, text, at) \
  case PACKBUF_RULE_##id: return PACKBUF_##status;
    PACKBUF_RULE_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
    default: return PACKBUF_INVALID_ARGUMENT;
  }
}

/* The same for a broken rule of the format: code and text are the rule's. */
static packbuf_status packbuf_i_broken(packbuf_error *error, packbuf_rule rule, uint64_t offset, uint64_t row) {
  packbuf_status code = packbuf_i_fail(error, packbuf_i_rule_status(rule), packbuf_rule_text(rule), offset, row);
  if (error) error->rule = rule;
  return code;
}

/* Rules H1 and H8: `size` bytes are there of `needed`. */
static packbuf_status packbuf_i_truncated(packbuf_error *error, packbuf_rule rule, uint64_t size, uint64_t needed) {
  const packbuf_status code = packbuf_i_broken(error, rule, size, PACKBUF_NOWHERE);
  if (error) error->needed = needed;
  return code;
}

static const char packbuf_i_no_memory_text[] = "the allocator returned no memory, or the arena is full";

static packbuf_status packbuf_i_no_memory(packbuf_error *error) {
  return packbuf_i_fail(error, PACKBUF_OUT_OF_MEMORY, packbuf_i_no_memory_text, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

/* Where encoders push bytes: into memory, or nowhere (at == NULL) to measure. `size` counts what was pushed; past
 * `capacity` nothing is stored, `size` still counts, up to UINT64_MAX. `limit`: a size past which encoders may stop (0:
 * none). */
typedef struct packbuf_i_sink {
  uint8_t *at;
  uint64_t capacity, size, limit;
} packbuf_i_sink;

static void packbuf_i_push_size(packbuf_i_sink *sink, uint64_t size) {
  sink->size = size > UINT64_MAX - sink->size ? UINT64_MAX : sink->size + size;
}

/* 1 when a sink is past its limit. */
static int packbuf_i_push_enough(const packbuf_i_sink *sink) { return sink->limit && sink->size > sink->limit; }

static void packbuf_i_push(packbuf_i_sink *sink, const void *data, size_t size) {
  if (sink->at && sink->size <= sink->capacity && size <= sink->capacity - sink->size && size)
    memcpy(sink->at + sink->size, data, size);
  packbuf_i_push_size(sink, size);
}

static void packbuf_i_push_byte(packbuf_i_sink *sink, uint8_t byte) {
  if (sink->at && sink->size < sink->capacity) sink->at[sink->size] = byte;
  packbuf_i_push_size(sink, 1);
}
