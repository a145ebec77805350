/* bench/peers.h: codecs that Debian packages, each where the build found it (BENCH_HAVE_...). All work on chunks of at
 * most 1 MiB, and at most the column's own length, so that none profits from the tiling; a chunk is stored behind its
 * size. Contexts are kept from chunk to chunk where the library allows it.
 * May use: codecs.h. Must not know: packbuf's packings. */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

#include "codecs.h"

#ifndef BENCH_HAVE_STREAMVBYTE /* compiled without bench/build.sh: no peers */
#define BENCH_HAVE_STREAMVBYTE 0
#define BENCH_HAVE_LZ4 0
#define BENCH_HAVE_ZSTD 0
#define BENCH_HAVE_BLOSC 0
#define BENCH_HAVE_MSGPACK 0
#define BENCH_HAVE_PROTOBUF_C 0
#define BENCH_HAVE_CAPNP 0
#endif

#if BENCH_HAVE_STREAMVBYTE
#include <streamvbyte.h>
#endif
#if BENCH_HAVE_LZ4
#include <lz4.h>
#endif
#if BENCH_HAVE_ZSTD
#include <zstd.h>
#endif
#if BENCH_HAVE_BLOSC
#include <blosc.h>
#endif

/* A chunk: returns the bytes it wrote, 0 when it failed. */
typedef size_t (*bench_chunk)(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to, size_t room);

static inline size_t bench_chunk_size(const bench_job *job) {
  const size_t most = (size_t)1 << 20, whole = job->column->size & ~(size_t)4095;
  return whole < most ? whole : most;
}

static void bench_chunk_check(const bench_job *job, int good) {
  if (good) return;
  fprintf(stderr, "bench: %s: %s failed\n", job->column->name, job->codec->name);
  exit(1);
}

static inline void bench_chunks_encode(bench_job *job, size_t chunk, bench_chunk encode) {
  const size_t room = bench_room(job->size);
  size_t at = 0;
  for (size_t from = 0; from < job->size; from += chunk) {
    const size_t size = job->size - from < chunk ? job->size - from : chunk;
    const uint64_t stored = encode(job, job->raw + from, size, job->stored + at + 8, room - at - 8);
    bench_chunk_check(job, stored != 0);
    memcpy(job->stored + at, &stored, 8);
    at += (8 + stored + 7) & ~(size_t)7;
  }
  job->stored_size = at;
}

static inline void bench_chunks_decode(bench_job *job, size_t chunk, bench_chunk decode) {
  size_t at = 0;
  for (size_t to = 0; to < job->size; to += chunk) {
    const size_t size = job->size - to < chunk ? job->size - to : chunk;
    uint64_t stored;
    memcpy(&stored, job->stored + at, 8);
    bench_chunk_check(job, decode(job, job->stored + at + 8, stored, job->out + to, size) == size);
    at += (8 + stored + 7) & ~(size_t)7;
  }
}

#if BENCH_HAVE_STREAMVBYTE
/* It takes 32-bit integers: chunks of 8192 are narrowed and widened through the first-level cache. */
enum { BENCH_VALUES = 8192 };

static int bench_takes_32_bits(const bench_codec *codec, const bench_column *column) {
  (void)codec;
  if (column->dtype.code != PACKBUF_DTYPE_INT || column->unit < 4 || column->narrow > 4) return 0;
  for (size_t i = 0; i < column->size / column->unit; i++) {
    if (bench_integer(column, i) < 0) return 0;
  }
  return 1;
}

static size_t bench_streamvbyte_encode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                             size_t room) {
  uint32_t words[BENCH_VALUES];
  const size_t count = size / job->column->unit;
  (void)room;
  if (job->column->unit == 4) memcpy(words, from, size);
  for (size_t i = 0; job->column->unit == 8 && i < count; i++) {
    uint64_t wide;
    memcpy(&wide, from + 8 * i, 8);
    words[i] = (uint32_t)wide;
  }
  return streamvbyte_encode(words, (uint32_t)count, to);
}

static size_t bench_streamvbyte_decode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                             size_t room) {
  uint32_t words[BENCH_VALUES];
  const size_t count = room / job->column->unit;
  const size_t used = streamvbyte_decode(from, words, (uint32_t)count);
  if (job->column->unit == 4) memcpy(to, words, room);
  for (size_t i = 0; job->column->unit == 8 && i < count; i++) {
    const uint64_t wide = words[i];
    memcpy(to + 8 * i, &wide, 8);
  }
  return used == size ? room : 0;
}

static void bench_streamvbyte_encode(bench_job *job) {
  bench_chunks_encode(job, (size_t)BENCH_VALUES * job->column->unit, bench_streamvbyte_encode_chunk);
}
static void bench_streamvbyte_decode(bench_job *job) {
  bench_chunks_decode(job, (size_t)BENCH_VALUES * job->column->unit, bench_streamvbyte_decode_chunk);
}
#endif

#if BENCH_HAVE_LZ4
static size_t bench_lz4_encode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to, size_t room) {
  (void)job;
  return (size_t)LZ4_compress_default((const char *)from, (char *)to, (int)size,
                                      (int)(room < 1 << 30 ? room : 1 << 30));
}
static size_t bench_lz4_decode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to, size_t room) {
  const int got = LZ4_decompress_safe((const char *)from, (char *)to, (int)size, (int)room);
  (void)job;
  return got < 0 ? 0 : (size_t)got;
}
static void bench_lz4_encode(bench_job *job) {
  bench_chunks_encode(job, bench_chunk_size(job), bench_lz4_encode_chunk);
}
static void bench_lz4_decode(bench_job *job) {
  bench_chunks_decode(job, bench_chunk_size(job), bench_lz4_decode_chunk);
}
#endif

#if BENCH_HAVE_ZSTD
static ZSTD_CCtx *bench_zstd_packer;
static ZSTD_DCtx *bench_zstd_reader; /* peers run in one thread */

static size_t bench_zstd_encode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                      size_t room) {
  size_t got;
  if (!bench_zstd_packer) bench_zstd_packer = ZSTD_createCCtx();
  got = ZSTD_compressCCtx(bench_zstd_packer, to, room, from, size, job->codec->option);
  return ZSTD_isError(got) ? 0 : got;
}
static size_t bench_zstd_decode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                      size_t room) {
  size_t got;
  (void)job;
  if (!bench_zstd_reader) bench_zstd_reader = ZSTD_createDCtx();
  got = ZSTD_decompressDCtx(bench_zstd_reader, to, room, from, size);
  return ZSTD_isError(got) ? 0 : got;
}
static void bench_zstd_encode(bench_job *job) {
  bench_chunks_encode(job, bench_chunk_size(job), bench_zstd_encode_chunk);
}
static void bench_zstd_decode(bench_job *job) {
  bench_chunks_decode(job, bench_chunk_size(job), bench_zstd_decode_chunk);
}
#endif

#if BENCH_HAVE_BLOSC
static size_t bench_blosc_encode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                       size_t room) {
  const int got = blosc_compress_ctx(5, job->codec->option, job->column->unit, size, from, to, room, "lz4", 0, 1);
  return got < 0 ? 0 : (size_t)got;
}
static size_t bench_blosc_decode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                       size_t room) {
  const int got = blosc_decompress_ctx(from, to, room, 1);
  (void)job, (void)size;
  return got < 0 ? 0 : (size_t)got;
}
static void bench_blosc_encode(bench_job *job) {
  bench_chunks_encode(job, bench_chunk_size(job), bench_blosc_encode_chunk);
}
static void bench_blosc_decode(bench_job *job) {
  bench_chunks_decode(job, bench_chunk_size(job), bench_blosc_decode_chunk);
}
#endif

#endif
