/* bench/row_messages.h: the rows of bench/rows.h as messages of msgpack-c (arrays of numbers, or blobs) and protobuf-c,
 * one message a row behind its size.
 * May use: rows.h. Must not know: packbuf's packings. */
#ifndef BENCH_ROW_MESSAGES_H
#define BENCH_ROW_MESSAGES_H

#include "rows.h"

/* Where row i goes in the columns; writes the offsets. 0: it does not fit. */
static inline int bench_out_place(bench_mixed *mixed, int i, size_t count, size_t text) {
  bench_out *out = &mixed->out;
  out->offsets[i + 1] = out->offsets[i] + count;
  out->text_offsets[i + 1] = out->text_offsets[i] + text;
  return out->offsets[i + 1] <= mixed->tokens && out->text_offsets[i + 1] <= mixed->text;
}

static void bench_row_failed(void) {
  fprintf(stderr, "bench: a row's message is not what was written\n");
  exit(1);
}

#if BENCH_HAVE_MSGPACK
static int bench_write_message(void *context, const char *data, size_t size) {
  bench_mixed *mixed = (bench_mixed *)context;
  if (size > mixed->room - mixed->size) return -1;
  memcpy(mixed->message + mixed->size, data, size);
  mixed->size += size;
  return 0;
}

static void bench_msgpack_row(msgpack_packer *packer, const bench_row *row, int blobs) {
  msgpack_pack_array(packer, 9);
  if (blobs) {
    msgpack_pack_bin(packer, 8 * row->count), msgpack_pack_bin_body(packer, row->tokens, 8 * row->count);
    msgpack_pack_bin(packer, 4 * row->count), msgpack_pack_bin_body(packer, row->log_probs, 4 * row->count);
  } else {
    msgpack_pack_array(packer, row->count);
    for (size_t i = 0; i < row->count; i++) msgpack_pack_int64(packer, row->tokens[i]);
    msgpack_pack_array(packer, row->count);
    for (size_t i = 0; i < row->count; i++) msgpack_pack_float(packer, row->log_probs[i]);
  }
  msgpack_pack_bin(packer, row->count), msgpack_pack_bin_body(packer, row->mask, row->count);
  msgpack_pack_str(packer, row->text_size), msgpack_pack_str_body(packer, row->text, row->text_size);
  msgpack_pack_int64(packer, row->step), msgpack_pack_int64(packer, row->seed);
  msgpack_pack_double(packer, row->rate), msgpack_pack_double(packer, row->score);
  row->good ? msgpack_pack_true(packer) : msgpack_pack_false(packer);
}

static void bench_msgpack_rows(bench_mixed *mixed, int blobs) {
  msgpack_packer packer;
  mixed->size = 0;
  msgpack_packer_init(&packer, mixed, bench_write_message);
  for (int i = 0; i < BENCH_MIXED; i++) bench_msgpack_row(&packer, &mixed->rows[i], blobs);
}

static void bench_msgpack_rows_arrays(void *context) { bench_msgpack_rows((bench_mixed *)context, 0); }
static void bench_msgpack_rows_blobs(void *context) { bench_msgpack_rows((bench_mixed *)context, 1); }

static void bench_msgpack_rows_decode(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  bench_out *out = &mixed->out;
  msgpack_unpacked message;
  size_t at = 0;
  msgpack_unpacked_init(&message);
  for (int i = 0; i < BENCH_MIXED; i++) {
    const msgpack_object *cell;
    size_t count;
    if (msgpack_unpack_next(&message, (const char *)mixed->message, mixed->size, &at) != MSGPACK_UNPACK_SUCCESS)
      bench_row_failed();
    cell = message.data.via.array.ptr;
    count = cell[2].via.bin.size;
    if (!bench_out_place(mixed, i, count, cell[3].via.str.size)) bench_row_failed();
    if (cell[0].type == MSGPACK_OBJECT_BIN) {
      memcpy(out->tokens + out->offsets[i], cell[0].via.bin.ptr, 8 * count);
      memcpy(out->log_probs + out->offsets[i], cell[1].via.bin.ptr, 4 * count);
    } else {
      for (size_t k = 0; k < count; k++) out->tokens[out->offsets[i] + k] = cell[0].via.array.ptr[k].via.i64;
      for (size_t k = 0; k < count; k++) out->log_probs[out->offsets[i] + k] = (float)cell[1].via.array.ptr[k].via.f64;
    }
    memcpy(out->mask + out->offsets[i], cell[2].via.bin.ptr, count);
    memcpy(out->text + out->text_offsets[i], cell[3].via.str.ptr, cell[3].via.str.size);
    out->step[i] = cell[4].via.i64, out->seed[i] = cell[5].via.i64;
    out->rate[i] = cell[6].via.f64, out->score[i] = cell[7].via.f64;
    out->good[i] = cell[8].via.boolean;
  }
  msgpack_unpacked_destroy(&message);
}
#endif

#if BENCH_HAVE_PROTOBUF_C
static void bench_protobuf_rows(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  mixed->size = 0;
  for (int i = 0; i < BENCH_MIXED; i++) {
    const bench_row *row = &mixed->rows[i];
    PackbufBench__Row message = PACKBUF_BENCH__ROW__INIT;
    uint64_t size;
    message.tokens = row->tokens, message.n_tokens = row->count;
    message.log_probs = row->log_probs, message.n_log_probs = row->count;
    message.mask.data = row->mask, message.mask.len = row->count;
    message.text.data = (uint8_t *)row->text, message.text.len = row->text_size;
    message.step = row->step, message.seed = row->seed;
    message.rate = row->rate, message.score = row->score, message.good = row->good;
    size = packbuf_bench__row__pack(&message, mixed->message + mixed->size + 8); /* the room is twice the raw bytes */
    memcpy(mixed->message + mixed->size, &size, 8);
    mixed->size += 8 + size;
  }
}

static void bench_protobuf_rows_decode(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  bench_out *out = &mixed->out;
  size_t at = 0;
  for (int i = 0; i < BENCH_MIXED; i++) {
    PackbufBench__Row *message;
    uint64_t size;
    memcpy(&size, mixed->message + at, 8);
    message = packbuf_bench__row__unpack(NULL, size, mixed->message + at + 8);
    if (!message || !bench_out_place(mixed, i, message->n_tokens, message->text.len)) bench_row_failed();
    memcpy(out->tokens + out->offsets[i], message->tokens, 8 * message->n_tokens);
    memcpy(out->log_probs + out->offsets[i], message->log_probs, 4 * message->n_log_probs);
    memcpy(out->mask + out->offsets[i], message->mask.data, message->mask.len);
    memcpy(out->text + out->text_offsets[i], message->text.data, message->text.len);
    out->step[i] = message->step, out->seed[i] = message->seed;
    out->rate[i] = message->rate, out->score[i] = message->score, out->good[i] = (uint8_t)message->good;
    packbuf_bench__row__free_unpacked(message, NULL);
    at += 8 + size;
  }
}
#endif

/* ---- opening, checking, reading ---- */

enum { BENCH_OFTEN = 1000 };

static void bench_verify_often(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  packbuf_view view;
  bench_check(packbuf_open(&view, mixed->message, mixed->size, 0, NULL, &bench_error));
  for (int i = 0; i < 20; i++) bench_check(packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &bench_error));
}

static void bench_access_often(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  packbuf_view view;
  packbuf_node node;
  packbuf_column column;
  const void *bytes;
  uint64_t size;
  bench_check(packbuf_open(&view, mixed->message, mixed->size, 0, NULL, &bench_error));
  bench_check(packbuf_find(&view, 0, "text", &node, &bench_error));
  bench_check(packbuf_open_column(&view, node.index, &column, &bench_error));
  for (uint64_t i = 0; i < BENCH_OFTEN; i++) {
    bench_check(packbuf_cell_bytes(&column, i * 7919 % BENCH_MIXED, &bytes, &size, &bench_error));
  }
}

static void bench_check_utf8(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  if (packbuf_i_utf8_valid(mixed->message, mixed->size) != mixed->size) bench_row_failed();
}

static void bench_copy_message(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  bench_memcpy(mixed->copied, mixed->message, mixed->size);
}

/* Nanoseconds of one of `often` in `run`. */
static void bench_once(bench_mixed *mixed, const char *op, void (*run)(void *), unsigned often, unsigned rounds,
                       bench_results *results) {
  static bench_turns turns;
  bench_result result;
  memset(&turns, 0, sizeof turns);
  memset(&result, 0, sizeof result);
  turns.threads = 1, turns.rounds = rounds, turns.operations = 1, turns.repeat = 4;
  turns.run[0] = run, turns.context[0][0] = mixed;
  bench_take_turns(&turns);
  result.op = op, result.column = "rows", result.dtype = "rows", result.kernels = "", result.name = "packbuf";
  result.threads = 1, result.seconds = bench_seconds(&turns, 0) / often;
  bench_put(results, &result);
}

/* UTF-8 at 256 MiB of ASCII. */
static void bench_utf8(unsigned rounds, bench_results *results) {
  static bench_mixed text;
  static bench_turns turns;
  bench_result result;
  text.size = (size_t)256 << 20;
  text.message = bench_memory(text.size);
  text.copied = bench_memory(text.size);
  for (size_t i = 0; i < text.size; i++) text.message[i] = (uint8_t)(32 + i * 7 % 90);
  memset(&turns, 0, sizeof turns);
  memset(&result, 0, sizeof result);
  turns.threads = 1, turns.rounds = rounds, turns.operations = 2, turns.repeat = 1;
  turns.run[0] = bench_copy_message, turns.run[1] = bench_check_utf8;
  turns.context[0][0] = turns.context[0][1] = &text;
  bench_take_turns(&turns);
  result.op = "UTF-8", result.column = "ASCII", result.dtype = "text", result.kernels = "", result.name = "packbuf";
  result.bytes = text.size, result.threads = 1, result.ratio = result.narrow_ratio = 1;
  result.seconds = bench_seconds(&turns, 1), result.x_memcpy = bench_times(&turns, 1, 0);
  bench_put(results, &result);
  free(text.message);
  free(text.copied);
}

static void bench_mixed_rows(unsigned rounds, bench_results *results) {
  static bench_mixed mixed;
  bench_mixed_make(&mixed);
  bench_mixed_case(&mixed, "packbuf plain", bench_mixed_encode, bench_mixed_decode, rounds, results);
  bench_once(&mixed, "verify the index of 4096 rows", bench_verify_often, 20, rounds, results);
  bench_once(&mixed, "first access", bench_access_often, BENCH_OFTEN, rounds, results);
  mixed.packing = PACKBUF_PACKING_BALANCED;
  if (bench_mixed_write(&mixed)) fprintf(stderr, "bench: rows: packbuf: %s\n", packbuf_status_text(bench_error.code));
  else bench_mixed_case(&mixed, "packbuf", bench_mixed_encode, bench_mixed_decode, rounds, results);
#if BENCH_HAVE_MSGPACK
  bench_mixed_case(&mixed, "msgpack-c array", bench_msgpack_rows_arrays, bench_msgpack_rows_decode, rounds, results);
  bench_mixed_case(&mixed, "msgpack-c bin", bench_msgpack_rows_blobs, bench_msgpack_rows_decode, rounds, results);
#endif
#if BENCH_HAVE_PROTOBUF_C
  bench_mixed_case(&mixed, "protobuf-c", bench_protobuf_rows, bench_protobuf_rows_decode, rounds, results);
#endif
  bench_utf8(rounds, results);
}

#endif
