/* bench/rows.h: 4096 rows of mixed fields (token ids, log-probs, a byte mask, text, five numbers; 21 MB), as one has
 * them before sending: pieces all over the memory. Encoded into one message, decoded into columns that are there
 * already, by packbuf and by message formats; beside the memcpy of all pieces. Also checking and opening such a buffer,
 * and UTF-8.
 * May use: batches.h (bench_check), generate.h, messages.h. Must not know: how anything is packed. */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include "batches.h"
#include "generate.h"
#include "messages.h"

enum { BENCH_MIXED = 4096 };

typedef struct bench_row {
  int64_t *tokens;
  float *log_probs;
  uint8_t *mask;
  char *text;
  size_t count, text_size;
  int64_t step, seed;
  double rate, score;
  uint8_t good;
} bench_row;

/* What is decoded into; rows end to end. */
typedef struct bench_out {
  int64_t *tokens, *step, *seed;
  float *log_probs;
  uint8_t *mask, *good;
  char *text;
  double *rate, *score;
  uint64_t *offsets, *text_offsets; /* BENCH_MIXED + 1 each */
} bench_out;

typedef struct bench_mixed {
  bench_row rows[BENCH_MIXED];
  size_t tokens, text, bytes; /* of all rows */
  bench_out out;
  uint8_t *message, *copied;
  size_t room, size;
  /* what packbuf is told, made once */
  packbuf_tensor pieces[3][BENCH_MIXED];
  uint64_t counts[BENCH_MIXED];
  packbuf_text texts[BENCH_MIXED];
  uint8_t packing;
  void *space; /* of the arena: reused, as the message is */
} bench_mixed;

static void bench_out_make(bench_out *out, size_t tokens, size_t text) {
  out->tokens = (int64_t *)(void *)bench_memory(8 * tokens);
  out->log_probs = (float *)(void *)bench_memory(4 * tokens);
  out->mask = bench_memory(tokens);
  out->text = (char *)bench_memory(text);
  out->step = (int64_t *)bench_must(calloc(BENCH_MIXED, 8));
  out->seed = (int64_t *)bench_must(calloc(BENCH_MIXED, 8));
  out->rate = (double *)bench_must(calloc(BENCH_MIXED, 8));
  out->score = (double *)bench_must(calloc(BENCH_MIXED, 8));
  out->good = (uint8_t *)bench_must(calloc(BENCH_MIXED, 1));
  out->offsets = (uint64_t *)bench_must(calloc(BENCH_MIXED + 1, 8));
  out->text_offsets = (uint64_t *)bench_must(calloc(BENCH_MIXED + 1, 8));
}

static void bench_row_make(bench_row *row, int number) {
  static const char words[] = "so the number of apples that she has left is found by taking what was sold away; ";
  row->count = bench_log_normal(5.6, 0.75, 16, 2048);
  row->text_size = bench_log_normal(5.95, 0.5, 200, 2000);
  row->tokens = (int64_t *)bench_must(malloc(8 * row->count));
  row->log_probs = (float *)bench_must(malloc(4 * row->count));
  row->mask = (uint8_t *)bench_must(malloc(row->count));
  row->text = (char *)bench_must(malloc(row->text_size));
  for (size_t i = 0; i < row->count; i++) {
    row->tokens[i] = bench_token();
    row->log_probs[i] = -(float)exp(-0.9 + 1.6 * bench_normal());
    row->mask[i] = i > row->count / 4;
  }
  for (size_t i = 0, at = bench_random() % 64; i < row->text_size; i++)
    row->text[i] = words[(at + i) % (sizeof words - 1)];
  row->step = number / 512, row->seed = (int64_t)(bench_random() >> 1);
  row->rate = 1e-6, row->score = bench_uniform();
  row->good = (uint8_t)(bench_random() & 1);
}

static void bench_mixed_make(bench_mixed *mixed) {
  for (int i = 0; i < BENCH_MIXED; i++) {
    static const struct {
      packbuf_dtype_code code;
      unsigned bits;
    } kinds[3] = {{PACKBUF_DTYPE_INT, 64}, {PACKBUF_DTYPE_FLOAT, 32}, {PACKBUF_DTYPE_UINT, 8}};
    bench_row *row = &mixed->rows[i];
    bench_row_make(row, i);
    mixed->tokens += row->count;
    mixed->text += row->text_size;
    mixed->counts[i] = row->count;
    mixed->texts[i].data = row->text, mixed->texts[i].size = row->text_size;
    for (int k = 0; k < 3; k++) {
      packbuf_tensor *piece = &mixed->pieces[k][i];
      piece->data = k == 0   ? (const void *)row->tokens
                    : k == 1 ? (const void *)row->log_probs
                             : (const void *)row->mask;
      piece->dtype = packbuf_dtype_of(kinds[k].code, kinds[k].bits);
      piece->rank = 1;
      piece->shape = &mixed->counts[i];
    }
  }
  mixed->bytes = 13 * mixed->tokens + mixed->text + BENCH_MIXED * 33;
  mixed->room = 2 * mixed->bytes;
  mixed->message = bench_memory(mixed->room);
  mixed->copied = bench_memory(mixed->bytes);
  mixed->space = bench_memory((size_t)16 << 20);
  bench_out_make(&mixed->out, mixed->tokens, mixed->text);
}

/* The bound: a memcpy of each piece. */
static void bench_mixed_copy(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  uint8_t *to = mixed->copied;
  for (int i = 0; i < BENCH_MIXED; i++) {
    const bench_row *row = &mixed->rows[i];
    memcpy(to, row->tokens, 8 * row->count), to += 8 * row->count;
    memcpy(to, row->log_probs, 4 * row->count), to += 4 * row->count;
    memcpy(to, row->mask, row->count), to += row->count;
    memcpy(to, row->text, row->text_size), to += row->text_size;
    memcpy(to, &row->step, 33), to += 33;
  }
  __asm__ volatile("" : : "r"(to) : "memory");
}

/* ---- packbuf ---- */

static void bench_add_number(const bench_mixed *mixed, packbuf_batch *batch, const char *name, const void *first,
                             packbuf_dtype_code code, unsigned bits) {
  static const uint64_t shape[1] = {BENCH_MIXED};
  static const int64_t strides[1] = {sizeof(bench_row)};
  packbuf_tensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = first;
  tensor.dtype = packbuf_dtype_of(code, bits);
  tensor.rank = 1, tensor.shape = shape, tensor.strides = strides;
  bench_check(packbuf_add_tensor(batch, name, &tensor, NULL, &bench_error));
  (void)mixed;
}

static packbuf_status bench_mixed_write(bench_mixed *mixed) {
  packbuf_options options = packbuf_default_options();
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_status status;
  uint64_t size = 0;
  options.packing = mixed->packing;
  options.data_checksums = 0;
  packbuf_arena_init_fixed(&arena, mixed->space, (size_t)16 << 20);
  status = packbuf_batch_init(&batch, BENCH_MIXED, &arena, &options, &bench_error);
  if (status) return status;
  bench_check(packbuf_add_tensors(&batch, "tokens", mixed->pieces[0], &bench_error));
  bench_check(packbuf_add_tensors(&batch, "log_probs", mixed->pieces[1], &bench_error));
  bench_check(packbuf_add_tensors(&batch, "mask", mixed->pieces[2], &bench_error));
  bench_check(packbuf_add_strings(&batch, "text", mixed->texts, &bench_error));
  bench_add_number(mixed, &batch, "step", &mixed->rows[0].step, PACKBUF_DTYPE_INT, 64);
  bench_add_number(mixed, &batch, "seed", &mixed->rows[0].seed, PACKBUF_DTYPE_INT, 64);
  bench_add_number(mixed, &batch, "rate", &mixed->rows[0].rate, PACKBUF_DTYPE_FLOAT, 64);
  bench_add_number(mixed, &batch, "score", &mixed->rows[0].score, PACKBUF_DTYPE_FLOAT, 64);
  bench_add_number(mixed, &batch, "good", &mixed->rows[0].good, PACKBUF_DTYPE_BOOL, 8);
  status = packbuf_write(&batch, mixed->message, mixed->room, &size, &bench_error);
  mixed->size = (size_t)size;
  packbuf_arena_free(&arena);
  return status;
}

static void bench_mixed_encode(void *context) { bench_check(bench_mixed_write((bench_mixed *)context)); }

static void bench_mixed_decode(void *context) {
  bench_mixed *mixed = (bench_mixed *)context;
  const bench_out *out = &mixed->out;
  void *const data[9] = {out->tokens, out->log_probs, out->mask,  out->text, out->step,
                         out->seed,   out->rate,      out->score, out->good};
  packbuf_arena arena;
  packbuf_view view;
  packbuf_selection all;
  packbuf_arena_init_fixed(&arena, mixed->space, (size_t)16 << 20);
  bench_check(packbuf_open(&view, mixed->message, mixed->size, 0, NULL, &bench_error));
  bench_check(packbuf_select(&view, 0, NULL, 0, packbuf_rows_all(), &arena, &all, &bench_error));
  for (unsigned i = 0; i < 9; i++) {
    packbuf_select_into into;
    memset(&into, 0, sizeof into);
    into.data = data[i];
    into.data_capacity = i < 3 ? mixed->tokens * (i == 0 ? 8 : i == 1 ? 4 : 1) : i == 3 ? mixed->text : 8 * BENCH_MIXED;
    into.rows = BENCH_MIXED;
    if (i == 0) into.offsets = out->offsets;
    if (i == 3) into.offsets = out->text_offsets;
    bench_check(packbuf_select_copy(&all, all.nodes[i], &into, NULL, &bench_error));
  }
  packbuf_arena_free(&arena);
}

/* The decoded columns hold the rows. */
static void bench_mixed_compare(bench_mixed *mixed, const char *name) {
  const bench_out *out = &mixed->out;
  size_t at = 0, text = 0;
  for (int i = 0; i < BENCH_MIXED; i++) {
    const bench_row *row = &mixed->rows[i];
    if (memcmp(out->tokens + at, row->tokens, 8 * row->count) ||
        memcmp(out->log_probs + at, row->log_probs, 4 * row->count) || memcmp(out->mask + at, row->mask, row->count) ||
        memcmp(out->text + text, row->text, row->text_size) || out->step[i] != row->step || out->seed[i] != row->seed ||
        memcmp(&out->rate[i], &row->rate, 8) || memcmp(&out->score[i], &row->score, 8) || out->good[i] != row->good ||
        out->offsets[i] != at || out->text_offsets[i] != text) {
      fprintf(stderr, "bench: rows, %s: row %d came back changed\n", name, i);
      exit(1);
    }
    at += row->count, text += row->text_size;
  }
}

static void bench_out_clear(bench_mixed *mixed) {
  bench_out *out = &mixed->out;
  memset(out->tokens, 0x5A, 8 * mixed->tokens);
  memset(out->log_probs, 0x5A, 4 * mixed->tokens);
  memset(out->mask, 0x5A, mixed->tokens);
  memset(out->text, 0x5A, mixed->text);
}

/* Encodes, decodes, compares, times. */
static void bench_mixed_case(bench_mixed *mixed, const char *name, void (*encode)(void *), void (*decode)(void *),
                             unsigned rounds, bench_results *results) {
  static bench_turns turns;
  bench_result result;
  encode(mixed);
  bench_out_clear(mixed);
  decode(mixed);
  bench_mixed_compare(mixed, name);
  memset(&turns, 0, sizeof turns);
  turns.threads = 1, turns.rounds = rounds, turns.operations = 3, turns.repeat = 1;
  turns.run[0] = bench_mixed_copy, turns.run[1] = encode, turns.run[2] = decode;
  for (int i = 0; i < 3; i++) turns.context[0][i] = mixed;
  bench_take_turns(&turns);
  memset(&result, 0, sizeof result);
  result.column = "rows", result.dtype = "rows", result.kernels = "", result.name = name;
  result.bytes = mixed->bytes, result.threads = 1;
  result.ratio = result.narrow_ratio = (double)mixed->bytes / (double)mixed->size;
  for (unsigned i = 1; i < 3; i++) {
    result.op = i == 1 ? "encode" : "decode";
    result.seconds = bench_seconds(&turns, i);
    result.x_memcpy = bench_times(&turns, i, 0);
    bench_put(results, &result);
  }
}

#endif
