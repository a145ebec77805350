/* Random selections and what they must give, worked out cell by cell with the calls that know nothing of selections;
 * for tests/select.c and fuzz/select.c. Include after packbuf.h.
 * May use: packbuf.h. Must not know: how selections are made. */
#ifndef SELECTING_H
#define SELECTING_H

#include "bytes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t selecting_random(uint64_t *seed) {
  uint64_t z = *seed += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

static uint64_t selecting_below(uint64_t *seed, uint64_t n) { return n ? selecting_random(seed) % n : 0; }

/* A selection of rows and, one by one, the rows it means. */
typedef struct selecting_rows {
  packbuf_row_selection rows;
  int64_t *list;
  uint8_t *mask;
  uint64_t *expected, count;
} selecting_rows;

static void *selecting_memory(uint64_t size) {
  void *memory = calloc(1, (size_t)size + 1);
  if (!memory) abort();
  return memory;
}

/* About one row in eight, by any of the ways; at most `most` rows. */
static inline void selecting_rows_make(selecting_rows *r, uint64_t rows, uint64_t most, uint64_t *seed) {
  const unsigned way = (unsigned)selecting_below(seed, 6);
  const uint64_t share = rows / 8 + 1 < most ? rows / 8 + 1 : most;
  memset(r, 0, sizeof *r);
  r->expected = (uint64_t *)selecting_memory((rows < most ? rows : most) * 8 + share * 8);
  if (way == 0 && rows <= most) {
    r->rows = packbuf_rows_all();
    for (uint64_t i = 0; i < rows; i++) r->expected[r->count++] = i;
  } else if (way <= 1) { /* a run, with ends counted from the end at times */
    const uint64_t first = selecting_below(seed, rows + 1),
                   last = first + selecting_below(seed, (rows - first < share ? rows - first : share) + 1);
    const int64_t from = selecting_below(seed, 2) && first < rows ? (int64_t)first - (int64_t)rows : (int64_t)first;
    r->rows = packbuf_rows_range(from, last == rows && rows <= most ? PACKBUF_ROWS_END : (int64_t)last, 1);
    for (uint64_t i = first; i < last; i++) r->expected[r->count++] = i;
  } else if (way == 2) { /* every few rows, up or down */
    const uint64_t step = rows / share + selecting_below(seed, 4) + 1, first = selecting_below(seed, rows);
    const int down = selecting_below(seed, 2) != 0;
    r->rows = packbuf_rows_range((int64_t)first, down ? PACKBUF_ROWS_BEGIN : PACKBUF_ROWS_END,
                                   down ? -(int64_t)step : (int64_t)step);
    for (uint64_t i = first; i < rows && r->count < share + 1; i = down ? i - step : i + step)
      r->expected[r->count++] = i; /* below 0 it wraps to beyond rows */
  } else if (way == 3 || rows > most) { /* any rows, some again */
    r->count = rows ? selecting_below(seed, share + 1) : 0;
    r->list = (int64_t *)selecting_memory(r->count * 8);
    for (uint64_t i = 0; i < r->count; i++) {
      r->expected[i] = i && selecting_below(seed, 4) == 0 ? r->expected[i - 1] : selecting_below(seed, rows);
      r->list[i] = selecting_below(seed, 2) ? (int64_t)r->expected[i] : (int64_t)r->expected[i] - (int64_t)rows;
    }
    r->rows = packbuf_rows_index(r->list, r->count);
  } else {
    r->mask = (uint8_t *)selecting_memory(rows);
    for (uint64_t i = 0; i < rows; i++) {
      const int on = selecting_below(seed, 8) == 0 && r->count < share;
      if (on) r->expected[r->count++] = i;
      if (way == 4) r->mask[i] = on ? (uint8_t)(1 + selecting_below(seed, 255)) : 0;
      else if (on) r->mask[i / 8] = (uint8_t)(r->mask[i / 8] | 1u << i % 8);
    }
    r->rows = way == 4 ? packbuf_rows_mask(r->mask, rows) : packbuf_rows_bitmap(r->mask, rows);
  }
}

static inline void selecting_rows_free(selecting_rows *r) {
  free(r->list);
  free(r->mask);
  free(r->expected);
}

/* What was copied out of one node. */
typedef struct selecting_column {
  packbuf_selected_size size;
  packbuf_select_into into;
  packbuf_status status;
} selecting_column;

static void selecting_column_free(selecting_column *c) {
  free(c->into.data), free(c->into.offsets), free(c->into.item_offsets), free(c->into.lengths), free(c->into.ndims);
  free(c->into.types), free(c->into.validity), free(c->into.missing);
  for (unsigned d = 0; d < PACKBUF_MAX_RANK; d++) free(c->into.shape[d]);
  memset(c, 0, sizeof *c);
}

/* Sizes and copies one node into memory of exactly the size. Data and offsets alone go another way than with shapes. */
static void selecting_copy(const packbuf_selection *s, uint32_t node, int all, unsigned offset_bits, uint64_t most,
                           selecting_column *c, packbuf_error *error) {
  packbuf_selected_size copied;
  memset(c, 0, sizeof *c);
  memset(&copied, 0, sizeof copied);
  c->status = packbuf_select_size(s, node, &c->size, error);
  if (c->status == PACKBUF_OK && (c->size.data_bytes > most || c->size.rows > most || c->size.items > most))
    c->status = PACKBUF_LIMIT;
  if (c->status != PACKBUF_OK) return;
  c->into.data = malloc((size_t)c->size.data_bytes ? (size_t)c->size.data_bytes : 1);
  c->into.data_capacity = c->size.data_bytes;
  c->into.rows = c->size.rows;
  c->into.items = c->size.items;
  c->into.offset_bits = (uint8_t)offset_bits;
  c->into.offsets = malloc(((size_t)(c->size.items ? c->size.items : c->size.rows) + 1) * (offset_bits / 8));
  c->into.item_offsets = malloc(((size_t)c->size.rows + 1) * (offset_bits / 8));
  c->into.validity = (uint8_t *)malloc(((size_t)c->size.rows + 7) / 8 + !c->size.rows);
  c->into.missing = (uint8_t *)malloc(((size_t)c->size.rows + 7) / 8 + !c->size.rows);
  c->into.types = (uint8_t *)calloc(1, (size_t)(c->size.items > c->size.rows ? c->size.items : c->size.rows) + 1);
  if (all) {
    c->into.lengths = (uint64_t *)calloc((size_t)c->size.rows + 1, 8);
    c->into.ndims = (uint8_t *)calloc(1, (size_t)c->size.rows + 1);
    for (unsigned d = 0; d < c->size.rank; d++) c->into.shape[d] = (uint64_t *)calloc((size_t)c->size.rows + 1, 8);
  }
  c->status = packbuf_select_copy(s, node, &c->into, &copied, error);
  if (c->status == PACKBUF_OK && memcmp(&copied, &c->size, sizeof copied) != 0) c->status = PACKBUF_BAD_SHAPE;
}

static uint64_t selecting_offset(const void *offsets, unsigned bits, uint64_t i) {
  int32_t narrow;
  uint64_t wide;
  if (bits == 32) return memcpy(&narrow, (const uint8_t *)offsets + 4 * i, 4), (uint64_t)narrow;
  return memcpy(&wide, (const uint8_t *)offsets + 8 * i, 8), wide;
}

static int selecting_bit(const uint8_t *bits, uint64_t i) { return bits[i / 8] >> (i % 8) & 1; }

/* An element of offsets or types; 0 where there are none. */
static uint64_t selecting_number(const packbuf_column *column, const packbuf_buffer *buffer, uint64_t i) {
  uint64_t number = 0;
  if (buffer->storage == 0) return 0;
  return packbuf_convert_elements(column->view, buffer, i, 1, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64), &number, 8,
                                  NULL)
             ? 0
             : number;
}

/* One cell of a column against what the calls for cells say. at: in the copy; items: the first item of the cell. */
static inline const char *selecting_check_cell(const packbuf_column *column, const selecting_column *c, uint64_t row,
                                        uint64_t at, uint64_t *elements, uint64_t *items, int all) {
  const packbuf_node *node = &column->node;
  const unsigned bits = c->into.offset_bits;
  const int media_list = node->kind == PACKBUF_LEAF && node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  uint64_t shape[PACKBUF_MAX_RANK] = {0}, stored = 0, first, count;
  packbuf_piece pieces[2];
  unsigned rank = 0, piece_count = 0;
  int state = 0;
  if (packbuf_cell_state(column, row, &state, NULL)) return "cell_state";
  if (selecting_bit(c->into.validity, at) != (state == 1)) return "validity";
  if (selecting_bit(c->into.missing, at) != (state == -1)) return "missing";
  if (node->kind == PACKBUF_NODE_LIST) {
    if (packbuf_cell_extent(column, row, &first, &count, NULL)) return "cell_extent";
    return !all || c->into.lengths[at] == count ? NULL : "length";
  }
  if (node->kind != PACKBUF_LEAF || node->codec == PACKBUF_CODEC_NULL) return NULL;
  if (packbuf_cell_pieces(column, row, pieces, &piece_count, NULL) || packbuf_stored_row(column, row, &stored, NULL))
    return "cell_pieces";
  for (unsigned i = 0; i < piece_count; i++) {
    const size_t element = bytes_each(node->dtype);
    for (uint64_t k = 0; media_list && k < pieces[i].count; k++) { /* items: their bytes */
      const uint64_t item = pieces[i].first + k, from = selecting_number(column, &column->offsets, item),
                     to = selecting_number(column, &column->offsets, item + 1);
      if (selecting_offset(c->into.offsets, bits, *items) != *elements) return "offset of an item";
      if (to != from) {
        uint8_t *copy = (uint8_t *)selecting_memory(to - from);
        const int wrong = packbuf_copy_elements(column->view, &column->data, from, to - from, copy, to - from, NULL) ||
                          memcmp(copy, (uint8_t *)c->into.data + *elements, (size_t)(to - from)) != 0;
        free(copy);
        if (wrong) return "bytes of an item";
      }
      if (c->into.types[*items] != selecting_number(column, &column->types, item)) return "type of an item";
      *elements += to - from;
      ++*items;
    }
    if (!media_list && pieces[i].count) {
      const size_t size = (size_t)pieces[i].count * element;
      uint8_t *copy = (uint8_t *)selecting_memory(size);
      const int wrong =
          packbuf_copy_elements(column->view, &column->data, pieces[i].first, pieces[i].count, copy, size, NULL) ||
          memcmp(copy, (uint8_t *)c->into.data + *elements * element, size) != 0;
      free(copy);
      if (wrong) return "data";
      *elements += pieces[i].count;
    }
  }
  if (node->codec == PACKBUF_CODEC_NDARRAY && piece_count == 0) { /* shared and absent, or empty */
    uint64_t each = 1;
    for (unsigned d = 0; d < node->rank; d++) each *= node->shape[d];
    for (uint64_t i = 0; i < each * bytes_each(node->dtype); i++)
      if (((uint8_t *)c->into.data)[*elements * bytes_each(node->dtype) + i]) return "zeros";
    *elements += each;
  }
  if (media_list) return selecting_offset(c->into.item_offsets, bits, at + 1) == *items ? NULL : "item offset";
  if (node->codec != PACKBUF_CODEC_NDARRAY && selecting_offset(c->into.offsets, bits, at + 1) != *elements)
    return "offset";
  if (c->into.types[at] != (state == 1 ? selecting_number(column, &column->types, stored) : 0)) return "type";
  if (!all || (node->codec != PACKBUF_CODEC_RAGGED_TENSOR && node->codec != PACKBUF_CODEC_TYPED_RAGGED)) return NULL;
  if (packbuf_cell_shape(column, row, &rank, shape, NULL)) return "cell_shape";
  if (c->into.ndims[at] != rank) return "ndims";
  for (unsigned d = 0; d < node->rank; d++)
    if (c->into.shape[d][at] != (d < rank ? shape[d] : 0)) return "shape";
  return NULL;
}

/* A copy of one node against its cells; NULL, or what is wrong. */
static inline const char *selecting_check_column(const packbuf_selection *s, uint32_t node, const selecting_column *c,
                                          const uint64_t *rows, uint64_t count, int all) {
  packbuf_column column, list;
  packbuf_node up;
  uint64_t at = 0, elements = 0, items = 0;
  const char *wrong = NULL;
  int by_item = 0;
  if (packbuf_open_column(s->view, node, &column, NULL)) return "open_column";
  if (column.node.parent != PACKBUF_NO_NODE && packbuf_get_node(s->view, column.node.parent, &up, NULL) == PACKBUF_OK &&
      up.kind == PACKBUF_LEAF && up.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) {
    by_item = 1;
    if (packbuf_open_column(s->view, up.index, &list, NULL)) return "open_column of the list";
  }
  for (uint64_t i = 0; !wrong && i < count; i++) {
    packbuf_piece pieces[2];
    unsigned piece_count = 0;
    if (!by_item) {
      wrong = selecting_check_cell(&column, c, rows[i], at++, &elements, &items, all);
      continue;
    }
    if (packbuf_cell_pieces(&list, rows[i], pieces, &piece_count, NULL)) return "pieces of the list";
    for (unsigned p = 0; p < piece_count; p++)
      for (uint64_t k = 0; !wrong && k < pieces[p].count; k++)
        wrong = selecting_check_cell(&column, c, pieces[p].first + k, at++, &elements, &items, all);
  }
  if (wrong) return wrong;
  if (at != c->size.rows) return "rows";
  if (items != c->size.items) return "items";
  if (at % 8 && (c->into.validity[at / 8] >> at % 8 || c->into.missing[at / 8] >> at % 8)) return "bits after the last";
  return elements == c->size.elements ? NULL : "elements";
}

/* Columns in place against what was copied out; *found counts those that there were. */
static inline const char *selecting_check_in_place(const packbuf_selection *s, uint32_t node, const selecting_column *c,
                                            unsigned *found) {
  packbuf_selected_tensor t;
  packbuf_ragged r;
  packbuf_node n;
  packbuf_status status;
  if (packbuf_get_node(s->view, node, &n, NULL)) return "get_node";
  status = packbuf_select_tensor(s, node, &t, NULL);
  if (status == PACKBUF_OK) {
    uint64_t each = bytes_each(n.dtype);
    ++*found;
    if (t.tensor.rank != n.rank + 1 || t.shape[0] != c->size.rows) return "shape of the tensor";
    for (unsigned d = 0; d < n.rank; d++) each *= t.shape[d + 1];
    for (uint64_t i = 0; each && i < t.shape[0]; i++)
      if (memcmp((const uint8_t *)t.tensor.data + (int64_t)i * t.strides[0], (uint8_t *)c->into.data + i * each,
                 (size_t)each) != 0)
        return "row of the tensor";
  }
  status = packbuf_select_ragged(s, node, &r, NULL);
  if (status == PACKBUF_OK) {
    const size_t element = bytes_each(n.dtype);
    ++*found;
    for (uint64_t i = 0; i < c->size.rows; i++) {
      const uint64_t from = selecting_offset(r.offsets, 64, i), to = selecting_offset(r.offsets, 64, i + 1),
                     at = selecting_offset(c->into.offsets, c->into.offset_bits, i);
      if (to - from != selecting_offset(c->into.offsets, c->into.offset_bits, i + 1) - at)
        return "extent of a ragged row";
      if ((r.validity ? selecting_bit(r.validity, i) : 1) != selecting_bit(c->into.validity, i))
        return "mask of a ragged row";
      if ((r.missing ? selecting_bit(r.missing, i) : 0) != selecting_bit(c->into.missing, i))
        return "a ragged row that is missing, or is not";
      if (to != from && memcmp((const uint8_t *)r.data + from * element, (uint8_t *)c->into.data + at * element,
                               (size_t)(to - from) * element) != 0)
        return "data of a ragged row";
    }
  }
  return NULL;
}

/* Element i of a copy as 64 bits, with its sign's above. */
static uint64_t selecting_integer(const void *data, packbuf_dtype dtype, uint64_t i) {
  const uint8_t *at = (const uint8_t *)data + i * bytes_each(dtype);
  const unsigned size = dtype.bits / 8u;
  uint64_t number = 0;
  for (unsigned k = 0; k < size; k++) number |= (uint64_t)at[bytes_big_endian() ? size - 1 - k : k] << 8 * k;
  if (dtype.code == PACKBUF_DTYPE_INT && size < 8 && number >> (dtype.bits - 1)) number |= ~(uint64_t)0 << dtype.bits;
  return number;
}

/* Whether a stored integer is also one of `to`. */
static int selecting_fits(uint64_t number, packbuf_dtype from, packbuf_dtype to) {
  const int below = from.code == PACKBUF_DTYPE_INT && number >> 63;
  if (to.code == PACKBUF_DTYPE_UINT) return !below && (to.bits == 64 || number >> to.bits == 0);
  if (below) return ~number >> (to.bits - 1) == 0;
  return number >> (to.bits - 1) == 0;
}

/* Which row of the selection has element `at` of a copy; not for rows that are items. */
static uint64_t selecting_row_of(const packbuf_selection *s, const packbuf_node *n, const selecting_column *c,
                                 uint64_t at) {
  uint64_t i = 0;
  if (n->codec == PACKBUF_CODEC_NDARRAY) return packbuf_selected_row(s, at / (c->size.elements / c->size.rows));
  while (selecting_offset(c->into.offsets, c->into.offset_bits, i + 1) <= at) i++;
  return packbuf_selected_row(s, i);
}

/* Copies of the same rows as other integers against that as stored, *found of them; NULL, or what is wrong. */
static inline const char *selecting_check_converted(const packbuf_selection *s, uint32_t node,
                                                    const selecting_column *c, unsigned *found) {
  packbuf_node n, up;
  packbuf_error error;
  const char *wrong = NULL;
  int items = 0;
  if (packbuf_get_node(s->view, node, &n, NULL)) return "get_node";
  if (n.parent != PACKBUF_NO_NODE && !packbuf_get_node(s->view, n.parent, &up, NULL))
    items = up.kind == PACKBUF_LEAF && up.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  for (unsigned way = 0; !wrong && way < 8; way++) {
    const packbuf_dtype to = packbuf_dtype_of(way & 1 ? PACKBUF_DTYPE_UINT : PACKBUF_DTYPE_INT, 8u << way / 2);
    const int integers = n.kind == PACKBUF_LEAF && n.codec >= PACKBUF_CODEC_NDARRAY &&
                         n.codec <= PACKBUF_CODEC_TYPED_RAGGED && n.dtype.lanes == 1 && n.dtype.bits >= 8 &&
                         n.dtype.bits <= 64 &&
                         (n.dtype.code <= PACKBUF_DTYPE_UINT || n.dtype.code == PACKBUF_DTYPE_BOOL);
    packbuf_select_into into;
    packbuf_selected_size size;
    packbuf_status status, expected = PACKBUF_OK;
    uint64_t unfit = 0;
    if (!c->size.elements || (n.dtype.code == to.code && n.dtype.bits == to.bits)) continue;
    memset(&into, 0, sizeof into);
    into.dtype = to;
    into.data_capacity = c->size.elements * (to.bits / 8u);
    into.data = selecting_memory(into.data_capacity);
    while (integers && unfit < c->size.elements &&
           selecting_fits(selecting_integer(c->into.data, n.dtype, unfit), n.dtype, to))
      unfit++;
    if (unfit < c->size.elements) expected = PACKBUF_LOSSY;
    status = packbuf_select_copy(s, node, &into, &size, &error);
    if (status == PACKBUF_LOSSY && !items && error.row != selecting_row_of(s, &n, c, unfit))
      wrong = "row of a conversion that loses";
    if (status != (integers ? expected : PACKBUF_WRONG_TYPE)) wrong = "status of a conversion";
    if (!wrong && !status && (size.elements != c->size.elements || size.data_bytes != into.data_capacity))
      wrong = "size of a conversion";
    for (uint64_t i = 0; !wrong && !status && i < size.elements; i++)
      if (selecting_integer(into.data, to, i) != selecting_integer(c->into.data, n.dtype, i)) wrong = "converted data";
    *found += !status;
    free(into.data);
  }
  return wrong;
}

/* Two copies of the same node. */
static inline const char *selecting_same(const selecting_column *a, const selecting_column *b) {
  if (a->status != b->status) return "status";
  if (a->status != PACKBUF_OK) return NULL;
  if (memcmp(&a->size, &b->size, sizeof a->size) != 0) return "sizes";
  if (memcmp(a->into.data, b->into.data, (size_t)a->size.data_bytes) != 0) return "data";
  return NULL;
}

/* What is left of a row's value in a selection; the children of `node` (PACKBUF_NO_NODE: the top) are pruned in place
 * in a copy. */
static inline packbuf_value selecting_prune(const packbuf_selection *s, const packbuf_value *value, uint64_t begin,
                                     uint64_t end, packbuf_arena *arena) {
  packbuf_value out = *value;
  packbuf_node child;
  uint64_t at = begin, k = 0;
  if (value->kind == PACKBUF_LIST) {
    packbuf_value *items = (packbuf_value *)packbuf_arena_alloc(arena, (value->as.list.count + 1) * sizeof *items, 8);
    for (; items && at < end && k < value->as.list.count; at += 1 + (uint64_t)child.descendants, k++) {
      if (packbuf_get_node(s->view, (uint32_t)at, &child, NULL)) return out;
      items[k] = packbuf_missing();
      if (s->flags[at] == 0) continue;
      items[k] = value->as.list.items[k];
      if (child.kind != PACKBUF_LEAF)
        items[k] = selecting_prune(s, &items[k], at + 1, at + 1 + child.descendants, arena);
    }
    return packbuf_list(k ? items : NULL, (size_t)k);
  }
  if (value->kind == PACKBUF_DICT) {
    packbuf_entry *entries =
        (packbuf_entry *)packbuf_arena_alloc(arena, (value->as.dict.count + 1) * sizeof *entries, 8);
    size_t i = 0;
    for (; entries && at < end && i < value->as.dict.count; at += 1 + (uint64_t)child.descendants) {
      packbuf_value name;
      if (packbuf_get_node(s->view, (uint32_t)at, &child, NULL)) return out;
      name = packbuf_string_n(child.name.data, child.name.size);
      if (!packbuf_equal(&value->as.dict.entries[i].key, &name)) continue; /* missing in this row */
      if (s->flags[at] != 0) {
        entries[k] = value->as.dict.entries[i];
        if (child.kind != PACKBUF_LEAF)
          entries[k].value = selecting_prune(s, &entries[k].value, at + 1, at + 1 + child.descendants, arena);
        k++;
      }
      i++;
    }
    return packbuf_dict(k ? entries : NULL, (size_t)k);
  }
  return out;
}

/* The pieces that the ranges of a selection are, each in memory of exactly its size, and head and index likewise: a
 * partial view over them. */
typedef struct selecting_partial {
  packbuf_view view;
  uint8_t *head;
  packbuf_fetched *pieces;
  uint64_t count;
} selecting_partial;

static inline packbuf_status selecting_fetch(selecting_partial *p, const uint8_t *data, const packbuf_view *view,
                                      const packbuf_range *ranges, uint64_t count, packbuf_error *error) {
  const uint64_t size = view->head_length + view->index_length;
  p->head = (uint8_t *)malloc((size_t)size);
  p->pieces = (packbuf_fetched *)selecting_memory(count * sizeof *p->pieces);
  p->count = count;
  if (!p->head) abort();
  memcpy(p->head, data, (size_t)size);
  for (uint64_t i = 0; i < count; i++) {
    uint8_t *bytes = (uint8_t *)malloc((size_t)ranges[i].length);
    if (!bytes) abort();
    memcpy(bytes, data + ranges[i].offset, (size_t)ranges[i].length);
    p->pieces[i].offset = ranges[i].offset;
    p->pieces[i].length = ranges[i].length;
    p->pieces[i].bytes = bytes;
  }
  return packbuf_open_partial(&p->view, p->head, size, p->pieces, count, 0, &view->limits, error);
}

static inline void selecting_fetch_free(selecting_partial *p) {
  for (uint64_t i = 0; i < p->count; i++) free((void *)(uintptr_t)p->pieces[i].bytes);
  free(p->pieces);
  free(p->head);
}

#endif
