/* bench/generate.h: columns for those who have no data, from published distributions: 1024 rows whose prompt and
 * response lengths are log-normal, token ids by Zipf's law over a vocabulary of 151,936, 0/1 masks with runs,
 * log-probs, an advantage a row; ragged, and padded to 256 + 1024 columns. And columns derived from those that were
 * loaded.
 * May use: columns.h. Must not know: codecs. */
#ifndef BENCH_GENERATE_H
#define BENCH_GENERATE_H

#include "columns.h"

#include <math.h>

enum { BENCH_VOCABULARY = 151936, BENCH_PAD = 151643, BENCH_ROWS = 1024, BENCH_PROMPT = 256, BENCH_RESPONSE = 1024 };

static uint64_t bench_random_state = 1;

/* splitmix64 */
static uint64_t bench_random(void) {
  uint64_t x = bench_random_state += UINT64_C(0x9E3779B97F4A7C15);
  x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
  return x ^ x >> 31;
}

static double bench_uniform(void) { return ((double)(bench_random() >> 11) + 0.5) / 9007199254740992.0; }

/* Box and Muller. */
static double bench_normal(void) { return sqrt(-2 * log(bench_uniform())) * cos(6.283185307179586 * bench_uniform()); }

/* exp(N(mean, deviation)), at least `least`, at most `most`. */
static size_t bench_log_normal(double mean, double deviation, double least, double most) {
  const double length = exp(mean + deviation * bench_normal());
  return (size_t)(length < least ? least : length > most ? most : length);
}

/* A token id: rank r (from 1) with probability proportional to 1 / r; in byte-pair vocabularies ids go by rank. */
static int64_t bench_token(void) {
  static double *below;
  const double x = bench_uniform();
  size_t low = 0, high = BENCH_VOCABULARY - 1;
  if (!below) {
    double sum = 0;
    below = (double *)bench_must(malloc(BENCH_VOCABULARY * sizeof *below));
    for (size_t i = 0; i < BENCH_VOCABULARY; i++) below[i] = sum += 1.0 / (double)(i + 1);
    for (size_t i = 0; i < BENCH_VOCABULARY; i++) below[i] /= sum;
  }
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (below[middle] < x) low = middle + 1;
    else high = middle;
  }
  return (int64_t)low;
}

static void bench_add_int64(bench_column *column, int64_t value) { memcpy(bench_column_grow(column, 8), &value, 8); }
static void bench_add_float(bench_column *column, float value) { memcpy(bench_column_grow(column, 4), &value, 4); }

/* Where one made row goes; `dense` pads it. */
typedef struct bench_made {
  bench_column *ids, *mask, *attention, *positions, *log_probs, *advantages;
  int dense;
} bench_made;

static void bench_make_cell(const bench_made *to, int is_there, int64_t token, int wrote, int64_t position) {
  bench_add_int64(to->ids, is_there ? token : BENCH_PAD);
  if (to->attention) bench_add_int64(to->attention, is_there);
  if (to->positions) bench_add_int64(to->positions, position);
  if (!to->dense) bench_add_int64(to->mask, wrote);
}

static void bench_make_row(const bench_made *to, size_t prompt, size_t response, float advantage) {
  const size_t before = to->dense ? BENCH_PROMPT - prompt : 0, after = to->dense ? BENCH_RESPONSE - response : 0;
  size_t left = 0; /* of the run of tokens that the model, or a tool, wrote */
  int wrote = 0;
  for (size_t i = 0; i < before; i++) bench_make_cell(to, 0, 0, 0, 0);
  for (size_t i = 0; i < prompt; i++) bench_make_cell(to, 1, bench_token(), 0, (int64_t)i);
  for (size_t i = 0; i < response; i++) {
    if (left == 0) wrote = !wrote, left = bench_log_normal(wrote ? 5 : 4, 0.8, 1, 4096);
    left--;
    bench_make_cell(to, 1, bench_token(), wrote, (int64_t)(prompt + i));
    if (to->dense) bench_add_int64(to->mask, wrote);
    bench_add_float(to->log_probs, wrote ? -(float)exp(-0.9 + 1.6 * bench_normal()) : 0.0f);
    bench_add_float(to->advantages, wrote ? advantage : 0.0f);
  }
  for (size_t i = 0; i < after; i++) {
    bench_make_cell(to, 0, 0, 0, (int64_t)(prompt + response) - 1);
    bench_add_int64(to->mask, 0);
    bench_add_float(to->log_probs, 0.0f);
    bench_add_float(to->advantages, 0.0f);
  }
}

static void bench_make_rows(bench_columns *columns, int dense) {
  const packbuf_dtype wide = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64),
                      single = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
  bench_made to;
  to.dense = dense;
  to.ids = bench_column_of(columns, dense ? "dense/input_ids" : "ragged/input_ids", wide);
  to.mask = bench_column_of(columns, dense ? "dense/response_mask" : "ragged/response_mask", wide);
  to.attention = dense ? bench_column_of(columns, "dense/attention_mask", wide) : NULL;
  to.positions = bench_column_of(columns, dense ? "dense/position_ids" : "ragged/position_ids", wide);
  to.log_probs = bench_column_of(columns, dense ? "dense/old_log_probs" : "ragged/old_log_probs", single);
  to.advantages = bench_column_of(columns, dense ? "dense/advantages" : "ragged/advantages", single);
  for (int i = 0; i < BENCH_ROWS; i++) {
    const size_t prompt = bench_log_normal(4.5, 0.5, 16, BENCH_PROMPT);
    bench_make_row(&to, prompt, bench_log_normal(5.5, 0.7, 16, BENCH_RESPONSE), (float)bench_normal());
  }
}

/* ---- always there ---- */

static void bench_derive(bench_columns *columns) {
  const packbuf_dtype wide = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  bench_column *lengths = bench_column_of(columns, "made/lengths", wide), *ids, *constant, *words, *bools, *halves;
  const bench_column *tokens = bench_column_of(columns, "ragged/input_ids", wide);
  const bench_column *mask = bench_column_of(columns, "ragged/response_mask", wide);
  const bench_column *log_probs =
      bench_column_of(columns, "ragged/old_log_probs", packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32));
  for (int i = 0; i < 131072; i++) bench_add_int64(lengths, (int64_t)bench_log_normal(6, 1, 16, 4096));
  ids = bench_column_of(columns, "made/zipf_ids", wide);
  for (int i = 0; i < 524288; i++) bench_add_int64(ids, bench_token());
  constant = bench_column_of(columns, "made/constant", wide);
  for (int i = 0; i < 131072; i++) bench_add_int64(constant, 7);
  words = bench_column_of(columns, "ragged/input_ids_int32", packbuf_dtype_of(PACKBUF_DTYPE_INT, 32));
  for (size_t i = 0; i < tokens->size / 8; i++) {
    const int32_t word = (int32_t)bench_integer(tokens, i);
    memcpy(bench_column_grow(words, 4), &word, 4);
  }
  bools = bench_column_of(columns, "ragged/response_mask_bool", packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8));
  for (size_t i = 0; i < mask->size / 8; i++) *(uint8_t *)bench_column_grow(bools, 1) = bench_integer(mask, i) != 0;
  halves = bench_column_of(columns, "ragged/old_log_probs_bf16", packbuf_dtype_of(PACKBUF_DTYPE_BFLOAT, 16));
  for (size_t i = 0; i < log_probs->size / 4; i++) {
    uint32_t bits;
    uint16_t half;
    memcpy(&bits, log_probs->data + 4 * i, 4);
    half = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16); /* to the nearest, ties to even; none is NaN */
    memcpy(bench_column_grow(halves, 2), &half, 2);
  }
}

/* Positions of the tokens of ragged rows, from their offsets (those of several batches, each from 0). */
static void bench_derive_positions(bench_columns *columns) {
  const packbuf_dtype wide = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  const bench_column *offsets = bench_column_of(columns, "ragged/input_ids_offsets", wide);
  bench_column *positions = bench_column_of(columns, "ragged/position_ids", wide);
  for (size_t i = 0; i + 1 < offsets->size / 8; i++) {
    const int64_t length = bench_integer(offsets, i + 1) - bench_integer(offsets, i);
    for (int64_t k = 0; k < length; k++) bench_add_int64(positions, k);
  }
}

/* What the targets and the quick run call the columns that matter most. */
static void bench_name_main(bench_columns *columns) {
  static const struct {
    const char *name, *what;
    int quick;
  } names[] = {{"ragged/input_ids", "tokens", 1},        {"dense/input_ids", "padded tokens", 1},
               {"ragged/response_mask", "mask", 1},      {"ragged/response_mask_bool", "bool mask", 1},
               {"ragged/position_ids", "positions", 1},  {"dense/position_ids", "padded positions", 0},
               {"ragged/old_log_probs", "log-probs", 1}, {"dense/old_log_probs", "padded log-probs", 1},
               {"ragged/advantages", "advantages", 1},   {"made/lengths", "lengths", 0},
               {"made/constant", "constant", 0}};
  for (unsigned i = 0; i < columns->count; i++) {
    for (unsigned k = 0; k < sizeof names / sizeof names[0]; k++) {
      if (strcmp(columns->all[i].name, names[k].name) != 0) continue;
      columns->all[i].what = names[k].what;
      columns->all[i].quick = names[k].quick;
    }
    bench_column_end(&columns->all[i]);
  }
}

/* From the folder `data` (NULL or empty: made). */
static void bench_columns_get(bench_columns *columns, const char *data) {
  columns->count = 0;
  columns->made = !data || !*data;
  if (columns->made) {
    bench_make_rows(columns, 0);
    bench_make_rows(columns, 1);
  } else {
    bench_load(columns, data, "ragged");
    bench_load(columns, data, "dense");
    bench_derive_positions(columns);
  }
  bench_derive(columns);
  bench_drop_short(columns);
  bench_name_main(columns);
}

#endif
