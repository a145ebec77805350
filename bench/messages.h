/* bench/messages.h: message formats as codecs of a column: msgpack-c, protobuf-c and Cap'n Proto, each where the build
 * found it; an array of numbers as one would write it, and as a blob of bytes.
 * May use: peers.h (chunks). Must not know: packbuf's packings. */
#ifndef BENCH_MESSAGES_H
#define BENCH_MESSAGES_H

#include "peers.h"

#if BENCH_HAVE_MSGPACK
#include <msgpack.h>
#endif
#if BENCH_HAVE_PROTOBUF_C
#include "column.pb-c.h"
#endif

/* Arrays of numbers are for these: the others go as bytes. */
static inline int bench_takes_numbers(const bench_codec *codec, const bench_column *column) {
  (void)codec;
  return (column->dtype.code == PACKBUF_DTYPE_INT && column->unit == 8) ||
         (column->dtype.code == PACKBUF_DTYPE_FLOAT && column->unit == 4) || column->dtype.code == PACKBUF_DTYPE_BOOL;
}

#if BENCH_HAVE_MSGPACK
static size_t bench_msgpack_encode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                         size_t room) {
  const size_t count = size / job->column->unit;
  static msgpack_sbuffer buffer; /* kept: it grows once */
  msgpack_packer packer;
  buffer.size = 0;
  msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
  if (job->codec->option) {
    msgpack_pack_bin(&packer, size);
    msgpack_pack_bin_body(&packer, from, size);
  } else {
    msgpack_pack_array(&packer, count);
    for (size_t i = 0; i < count; i++) {
      int64_t wide;
      float single;
      switch (job->column->unit) {
        case 8: memcpy(&wide, from + 8 * i, 8), msgpack_pack_int64(&packer, wide); break;
        case 4: memcpy(&single, from + 4 * i, 4), msgpack_pack_float(&packer, single); break;
        default: from[i] ? msgpack_pack_true(&packer) : msgpack_pack_false(&packer);
      }
    }
  }
  if (buffer.size > room) return 0;
  memcpy(to, buffer.data, buffer.size);
  return buffer.size;
}

static size_t bench_msgpack_decode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                         size_t room) {
  msgpack_unpacked message;
  size_t done = 0;
  msgpack_unpacked_init(&message);
  if (msgpack_unpack_next(&message, (const char *)from, size, NULL) != MSGPACK_UNPACK_SUCCESS) return 0;
  if (message.data.type == MSGPACK_OBJECT_BIN) {
    done = message.data.via.bin.size <= room ? message.data.via.bin.size : 0;
    memcpy(to, message.data.via.bin.ptr, done);
  } else {
    const msgpack_object_array *array = &message.data.via.array;
    for (size_t i = 0; i < array->size; i++, done += job->column->unit) {
      const float single = (float)array->ptr[i].via.f64;
      switch (job->column->unit) {
        case 8: memcpy(to + done, &array->ptr[i].via.i64, 8); break;
        case 4: memcpy(to + done, &single, 4); break;
        default: to[done] = array->ptr[i].via.boolean;
      }
    }
  }
  msgpack_unpacked_destroy(&message);
  return done;
}

static void bench_msgpack_encode(bench_job *job) {
  bench_chunks_encode(job, bench_chunk_size(job), bench_msgpack_encode_chunk);
}
static void bench_msgpack_decode(bench_job *job) {
  bench_chunks_decode(job, bench_chunk_size(job), bench_msgpack_decode_chunk);
}
#endif

#if BENCH_HAVE_PROTOBUF_C
static size_t bench_protobuf_encode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                          size_t room) {
  const size_t count = size / job->column->unit;
  PackbufBench__Column message = PACKBUF_BENCH__COLUMN__INIT;
  /* protobuf-c only reads what it packs */
  uint8_t *source = (uint8_t *)(uintptr_t)from;
  if (job->codec->option) message.bytes.data = source, message.bytes.len = size, message.has_bytes = 1;
  else if (job->column->unit == 8) message.integers = (int64_t *)(void *)source, message.n_integers = count;
  else if (job->column->unit == 4) message.floats = (float *)(void *)source, message.n_floats = count;
  else return 0;
  if (size + size / 4 > room && packbuf_bench__column__get_packed_size(&message) > room) return 0;
  return packbuf_bench__column__pack(&message, to);
}

static size_t bench_protobuf_decode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                          size_t room) {
  PackbufBench__Column *message = packbuf_bench__column__unpack(NULL, size, from);
  size_t done = 0;
  if (!message) return 0;
  if (message->has_bytes) memcpy(to, message->bytes.data, done = message->bytes.len);
  else if (message->n_integers) memcpy(to, message->integers, done = 8 * message->n_integers);
  else memcpy(to, message->floats, done = 4 * message->n_floats);
  packbuf_bench__column__free_unpacked(message, NULL);
  (void)job;
  return done <= room ? done : 0;
}

static int bench_takes_protobuf(const bench_codec *codec, const bench_column *column) {
  return bench_takes_numbers(codec, column) && column->unit > 1;
}

static void bench_protobuf_encode(bench_job *job) {
  bench_chunks_encode(job, bench_chunk_size(job), bench_protobuf_encode_chunk);
}
static void bench_protobuf_decode(bench_job *job) {
  bench_chunks_decode(job, bench_chunk_size(job), bench_protobuf_decode_chunk);
}
#endif

#if BENCH_HAVE_CAPNP
/* bench/capnp.cpp: a message whose root is a list of 64-bit words; packed: with its zero bytes taken out. 0: failed. */
size_t bench_capnp_write(const void *words, size_t count, int packed, void *to, size_t room);
size_t bench_capnp_read(const void *from, size_t size, int packed, void *words, size_t count);

static size_t bench_capnp_encode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                       size_t room) {
  return bench_capnp_write(from, size / 8, job->codec->option, to, room);
}
static size_t bench_capnp_decode_chunk(const bench_job *job, const uint8_t *from, size_t size, uint8_t *to,
                                       size_t room) {
  return 8 * bench_capnp_read(from, size, job->codec->option, to, room / 8);
}
static void bench_capnp_encode(bench_job *job) {
  bench_chunks_encode(job, bench_chunk_size(job), bench_capnp_encode_chunk);
}
static void bench_capnp_decode(bench_job *job) {
  bench_chunks_decode(job, bench_chunk_size(job), bench_capnp_decode_chunk);
}
#endif

/* ---- all peers ---- */

/* clang-format off */
#define BENCH_PEER(name, main, number, takes, codec) \
  { name, "", number, NULL, 0, main, takes, bench_##codec##_encode, bench_##codec##_decode }

static const bench_codec bench_peers[] = {
#if BENCH_HAVE_STREAMVBYTE
    BENCH_PEER("streamvbyte", 1, 0, bench_takes_32_bits, streamvbyte),
#endif
#if BENCH_HAVE_LZ4
    BENCH_PEER("lz4", 1, 0, NULL, lz4),
#endif
#if BENCH_HAVE_ZSTD
    BENCH_PEER("zstd -1", 1, 1, NULL, zstd),
#endif
#if BENCH_HAVE_BLOSC
    BENCH_PEER("blosc shuffle lz4", 1, BLOSC_SHUFFLE, NULL, blosc),
    BENCH_PEER("blosc bitshuffle lz4", 1, BLOSC_BITSHUFFLE, NULL, blosc),
#endif
#if BENCH_HAVE_MSGPACK
    BENCH_PEER("msgpack-c array", 0, 0, bench_takes_numbers, msgpack),
    BENCH_PEER("msgpack-c bin", 0, 1, NULL, msgpack),
#endif
#if BENCH_HAVE_PROTOBUF_C
    BENCH_PEER("protobuf-c repeated", 0, 0, bench_takes_protobuf, protobuf),
    BENCH_PEER("protobuf-c bytes", 0, 1, NULL, protobuf),
#endif
#if BENCH_HAVE_CAPNP
    BENCH_PEER("Cap'n Proto list", 0, 0, NULL, capnp),
    BENCH_PEER("Cap'n Proto packed", 0, 1, NULL, capnp),
#endif
    {NULL, NULL, 0, NULL, 0, 0, NULL, NULL, NULL}};
/* clang-format on */

#endif
