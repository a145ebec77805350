/* A batch of everything: every source and codec, shared fields, metadata; for the tests of writing it and of memory.
 * What it points to lives until mv_free. Test-only. */
#ifndef EVERYTHING_H
#define EVERYTHING_H

#include "trips.h"

enum { ROWS = 70 };

typedef struct everything {
  double dense[ROWS * 3];
  float constant[ROWS];
  int32_t items[ROWS * 8], offsets[ROWS + 1];
  char words[ROWS][24];
  packbuf_text texts[ROWS];
  packbuf_value nested[ROWS], mixed[ROWS], blobs[ROWS], lists[ROWS], value;
  uint64_t shape[2];
  packbuf_tensor dense_of, constant_of, strided_of, rows[ROWS];
  uint64_t row_shapes[ROWS][2];
  int64_t strides[2];
  packbuf_ragged ragged;
} everything;

static inline everything *make_everything(void) {
  static const char *const media[] = {"m\"image/png:abcdefghijklmnopqrstuvwxyz\"", "m\":raw\"", "null"};
  everything *e = (everything *)mv_alloc(sizeof *e);
  size_t count;
  memset(e, 0, sizeof *e);
  for (unsigned i = 0; i < ROWS; i++) {
    char line[200];
    for (unsigned k = 0; k < 3; k++) e->dense[i * 3 + k] = (double)i * k + 0.25;
    e->constant[i] = 1.5f;
    e->offsets[i + 1] = e->offsets[i] + (int32_t)mv_below(8);
    for (unsigned k = 0; k < 8; k++) e->items[i * 8 + k] = (int32_t)mv_random();
    snprintf(e->words[i], sizeof e->words[i], "word %u%s", i * 7919 % 101, i % 2 ? " and more" : "");
    e->texts[i] = text_of(i % 11 == 3 ? NULL : e->words[i]);
    snprintf(line, sizeof line,
             i % 9 == 4 ? "null"
                        : "{\"step\" %u \"tool\" {\"name\" \"t%u\" \"args\" [1 \"x\" %u]} \"ids\" [%u %u] \"calls\" "
                          "[{\"a\" %u} null]}",
             i, i % 3, i * i, i, i + 1, i * 31);
    e->nested[i] = *mv_column(line, &count);
    snprintf(line, sizeof line, i % 2 ? "[%u b\"bytes\" \"%u\"]" : "{%u \"int key\"}", i * 1000, i);
    e->mixed[i] = *mv_column(line, &count);
    e->blobs[i] = *mv_column(media[i % 3], &count);
    snprintf(line, sizeof line, "[m\"image/jpeg:%u\" b\"%u\"]*1", i * 77, i);
    e->lists[i] = *mv_column(line, &count);
    e->row_shapes[i][0] = i % 4;
    e->row_shapes[i][1] = 2;
    e->rows[i] = array_of(e->items + i, i32(), i % 3 ? 2 : 1, e->row_shapes[i], NULL, PACKBUF_FORM_ARRAY);
  }
  e->value = *mv_column("{\"version\" 3 \"name\" \"tokenizer\" \"weights\" t.f32[5](1 2 3 4 5)}", &count);
  e->shape[0] = ROWS;
  e->shape[1] = 3;
  e->strides[0] = 8;
  e->strides[1] = 8 * ROWS;
  e->dense_of = array_of(e->dense, f64(), 2, e->shape, NULL, PACKBUF_FORM_TENSOR);
  e->strided_of = array_of(e->dense, f64(), 2, e->shape, e->strides, PACKBUF_FORM_TENSOR);
  e->constant_of = array_of(e->constant, f32(), 1, e->shape, NULL, 0);
  e->ragged.data = e->items;
  e->ragged.dtype = i32();
  e->ragged.form = PACKBUF_FORM_LIST;
  e->ragged.offset_bits = 32;
  e->ragged.offsets = e->offsets;
  e->ragged.items = ROWS * 8;
  return e;
}

static inline packbuf_status add_everything(packbuf_batch *batch, const everything *e, packbuf_error *error) {
  packbuf_status s = packbuf_add_tensor(batch, "dense", &e->dense_of, NULL, error);
  if (!s) s = packbuf_add_tensor(batch, "again", &e->dense_of, NULL, error);
  if (!s) s = packbuf_add_tensor(batch, "strided", &e->strided_of, NULL, error);
  if (!s) s = packbuf_add_tensor(batch, "constant", &e->constant_of, NULL, error);
  if (!s) s = packbuf_add_ragged(batch, "ragged", &e->ragged, error);
  if (!s) s = packbuf_add_tensors(batch, "rows", e->rows, error);
  if (!s) s = packbuf_add_strings(batch, "strings", e->texts, error);
  if (!s) s = packbuf_add_bytes(batch, "bytes", e->texts, error);
  if (!s) s = packbuf_add_rows(batch, e->nested + 5, error);
  if (s == PACKBUF_WRONG_TYPE) s = PACKBUF_OK; /* one of them is null: refused, and leaves nothing */
  if (!s) s = packbuf_add_values(batch, "nested", e->nested, error);
  if (!s) s = packbuf_add_values(batch, "mixed", e->mixed, error);
  if (!s) s = packbuf_add_values(batch, "blobs", e->blobs, error);
  if (!s) s = packbuf_add_values(batch, "lists", e->lists, error);
  if (!s) s = packbuf_add_batch_value(batch, "meta", &e->value, error);
  if (!s) s = packbuf_add_metadata(batch, NULL, "run", "42", error);
  if (!s) s = packbuf_add_metadata(batch, "nested.step", "unit", "1", error);
  return s;
}

#endif
