/* bench/ours.h: packbuf's packings as codecs. A column as stored bytes: the headers of its blocks, then their payloads
 * (or, where the sample says plain, its bytes); with CRC-32C of the payloads while they are in the first-level cache;
 * and the copying of plain data.
 * May use: codecs.h; of packbuf.h the packer, the reader of blocks, the lane sets. Must not know: peers. */
#ifndef BENCH_OURS_H
#define BENCH_OURS_H

#include "codecs.h"

enum {
  BENCH_PROFILE = 3,   /* of option: 1 balanced, 2 fastest, 3 smallest */
  BENCH_CRC = 4,       /* + a checksum of the payloads */
  BENCH_NO_STREAM = 8, /* no non-temporal stores */
  BENCH_KNOWN = 16,    /* the recipe is that of the run before */
  BENCH_SAMPLE = 16    /* blocks, at most */
};

static const packbuf_i_lane_set *bench_set(const bench_job *job) { return (const packbuf_i_lane_set *)job->codec->set; }

static size_t bench_blocks(const bench_job *job) {
  return (job->size + PACKBUF_I_BLOCK_BYTES - 1) / PACKBUF_I_BLOCK_BYTES;
}

static unsigned bench_block_units(const bench_job *job, size_t block) {
  const size_t left = job->size - block * PACKBUF_I_BLOCK_BYTES;
  return (unsigned)((left < PACKBUF_I_BLOCK_BYTES ? left : PACKBUF_I_BLOCK_BYTES) / job->column->unit);
}

static size_t bench_headers(const bench_job *job) { return (16 * bench_blocks(job) + 63) & ~(size_t)63; }

/* From a sample of the column, as the spec says; 0: plain. */
static int bench_sample(const bench_job *job, packbuf_i_recipe *recipe) {
  const size_t blocks = bench_blocks(job);
  const unsigned count = blocks < BENCH_SAMPLE ? (unsigned)blocks : BENCH_SAMPLE;
  const uint8_t *sample[BENCH_SAMPLE];
  unsigned units[BENCH_SAMPLE];
  for (unsigned i = 0; i < count; i++) {
    const size_t block = blocks <= BENCH_SAMPLE ? i : i * (blocks - 1) / (BENCH_SAMPLE - 1);
    sample[i] = job->raw + block * PACKBUF_I_BLOCK_BYTES;
    units[i] = bench_block_units(job, block);
  }
  return packbuf_i_make_recipe(bench_set(job), job->column->dtype, (unsigned)job->codec->option & BENCH_PROFILE, sample,
                               units, count, recipe);
}

static int bench_recipe(bench_job *job, packbuf_i_recipe *recipe) {
  int packed;
  if (job->codec->option & BENCH_KNOWN && job->kept[0]) {
    memcpy(recipe, job->kept + 2, sizeof *recipe);
    return job->kept[1];
  }
  memset(recipe, 0, sizeof *recipe);
  packed = bench_sample(job, recipe);
  job->kept[0] = 1;
  job->kept[1] = (uint8_t)packed;
  memcpy(job->kept + 2, recipe, sizeof *recipe);
  return packed;
}

/* The first byte of the headers' place says whether blocks follow: in a packed buffer the buffer's record does. */
static void bench_packed_encode(bench_job *job) {
  const packbuf_i_lane_set *set = bench_set(job);
  const size_t blocks = bench_blocks(job);
  const int stream = job->stream && !(job->codec->option & BENCH_NO_STREAM);
  uint8_t *headers = job->stored + 64, *payload = headers + bench_headers(job);
  const uint8_t *start = payload;
  packbuf_i_packer packer;
  packbuf_i_recipe recipe;
  job->stored[0] = (uint8_t)bench_recipe(job, &recipe);
  if (!job->stored[0]) {
    set->copy(headers, job->raw, job->size, stream);
    job->stored_size = 64 + job->size;
    return;
  }
  job->crc = 0;
  packbuf_i_packer_begin(&packer, set, &recipe);
  for (size_t k = 0; k < blocks; k++) {
    const uint8_t *units = job->raw + k * PACKBUF_I_BLOCK_BYTES;
    const uint8_t *ahead = k + 1 < blocks && bench_block_units(job, k + 1) * job->column->unit == PACKBUF_I_BLOCK_BYTES
                               ? units + PACKBUF_I_BLOCK_BYTES
                               : NULL;
    packbuf_i_block block;
    uint32_t size;
    if (k % PACKBUF_I_STRIPE == 0) packbuf_i_packer_stripe(&packer);
    if (job->codec->option & BENCH_CRC) {
      uint8_t near[PACKBUF_I_PAYLOAD_ROOM];
      size = packbuf_i_pack_block(&packer, units, bench_block_units(job, k), &block, near, ahead, 0);
      job->crc = packbuf_checksum(job->crc, near, size);
      set->copy(payload, near, size, stream);
    } else {
      size = packbuf_i_pack_block(&packer, units, bench_block_units(job, k), &block, payload, ahead, stream);
    }
    block.place = (uint32_t)((size_t)(payload - start) / 64);
    packbuf_i_block_store(&block, headers + 16 * k);
    payload += size;
  }
  job->stored_size = (size_t)(payload - job->stored);
}

static void bench_packed_decode(bench_job *job) {
  const packbuf_i_lane_set *set = bench_set(job);
  const size_t blocks = bench_blocks(job);
  const int stream = job->stream && !(job->codec->option & BENCH_NO_STREAM);
  const uint8_t *headers = job->stored + 64, *start = headers + bench_headers(job),
                *end = job->stored + job->stored_size;
  uint32_t crc = 0;
  if (!job->stored[0]) {
    set->copy(job->out, headers, job->size, stream);
    return;
  }
  for (size_t k = 0; k < blocks; k++) {
    packbuf_i_block block, next;
    const uint8_t *payload;
    uint32_t size;
    const unsigned units = bench_block_units(job, k);
    packbuf_i_block_load(&block, headers + 16 * k);
    payload = start + (size_t)block.place * 64;
    size = (uint32_t)(end - payload);
    if (k + 1 < blocks) {
      packbuf_i_block_load(&next, headers + 16 * (k + 1));
      size = (next.place - block.place) * 64;
    }
    if (job->codec->option & BENCH_CRC) crc = packbuf_checksum(crc, payload, size);
    if (packbuf_i_block_units(set, &block, payload, size, job->column->dtype.bits, units, 0, units,
                              job->out + k * PACKBUF_I_BLOCK_BYTES, stream))
      continue;
    fprintf(stderr, "bench: %s: block %zu is broken\n", job->column->name, k);
    exit(1);
  }
  if (job->codec->option & BENCH_CRC && crc != job->crc) {
    fprintf(stderr, "bench: %s: the checksum does not match\n", job->column->name);
    exit(1);
  }
}

static void bench_plain_encode(bench_job *job) {
  bench_set(job)->copy(job->stored, job->raw, job->size, job->stream);
  job->stored_size = job->size;
}

static void bench_plain_decode(bench_job *job) { bench_set(job)->copy(job->out, job->stored, job->size, job->stream); }

/* ---- the list ---- */

static int bench_takes_tokens(const bench_codec *codec, const bench_column *column) {
  (void)codec;
  return column->what != NULL;
}

_Static_assert(sizeof(packbuf_i_recipe) + 2 <= sizeof(((bench_job *)0)->kept), "a recipe can be kept");

enum { BENCH_OURS = 40 };

/* Ours, at most BENCH_OURS: the best lane set everywhere, the others on the main columns. */
static unsigned bench_ours(bench_codec *list) {
  const packbuf_i_lane_set *best = packbuf_i_lane_set_best(), *set;
  const struct {
    const char *name;
    int option;
  } kinds[] = {{"packbuf", 1},
               {"packbuf fastest", 2},
               {"packbuf smallest", 3},
               {"packbuf, plain stores", 1 | BENCH_NO_STREAM},
               {"packbuf + CRC", 1 | BENCH_CRC},
               {"packbuf fastest, sampled before", 2 | BENCH_KNOWN}};
  const unsigned last = sizeof kinds / sizeof kinds[0] - 1;
  unsigned count = 0;
  memset(list, 0, BENCH_OURS * sizeof *list);
  list[count].name = "packbuf plain";
  list[count].encode = bench_plain_encode;
  list[count].decode = bench_plain_decode;
  list[count].set = best;
  list[count].kernels = best->name;
  list[count].main = 1;
  list[count++].fast = 1;
  for (unsigned k = 0; k <= last; k++) {
    for (unsigned i = 0; (set = packbuf_i_lane_set_at(i)) != NULL && count < BENCH_OURS; i++) {
      if (set != best && k >= 2 && k != last) continue; /* sampled before: the kernels alone */
      list[count].name = kinds[k].name;
      list[count].option = kinds[k].option;
      list[count].encode = bench_packed_encode;
      list[count].decode = bench_packed_decode;
      list[count].takes = set == best && k < 3 ? NULL : bench_takes_tokens;
      list[count].set = set;
      list[count].kernels = set->name;
      list[count].main = set == best && k < 3;
      list[count++].fast = i > 0;
    }
  }
  return count;
}

#endif
