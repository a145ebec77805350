/* core/leaf.c: a leaf that is being read, as its codec sees it: memory for what is made, the elements and bytes of a
 * cell, and the functions that a codec gives for reading and verifying (the table is codecs/readers.c).
 * May use: base, arena, value, select.h (which rows are read), access, cells, pieces. Must not know: how a leaf stores
 * its cells, what its values become. */

typedef struct packbuf_i_reader {
  const packbuf_view *view;
  packbuf_arena *arena;
  packbuf_error *error;
  uint64_t arena_limit;               /* the arena's own; while reading, its limit may be lower */
  uint64_t to_check;                  /* bytes of cells that may still be looked through: many rows may be one */
  const packbuf_selection *selection; /* rows are counted in it, other nodes left out; NULL: all */
} packbuf_i_reader;

/* packbuf_selection.flags */
enum { PACKBUF_I_ABOVE = 1, PACKBUF_I_CHOSEN = 2 };

PACKBUF_API uint64_t packbuf_selected_row(const packbuf_selection *selection, uint64_t i) {
  return selection->index ? selection->index[i] : selection->first + i * (uint64_t)selection->step;
}

/* The row that stands at place i, and whether a node is read at all. */
static uint64_t packbuf_i_reader_row(const packbuf_i_reader *r, uint64_t i) {
  return PACKBUF_I_UNLIKELY(r->selection != NULL) ? packbuf_selected_row(r->selection, i) : i;
}

static int packbuf_i_reader_wants(const packbuf_i_reader *r, uint64_t node) {
  return !r->selection || r->selection->flags[node] != 0;
}

/* Items of one size that cells take one at a time: taken from the arena in runs, never more than the cells that are
 * left. */
typedef struct packbuf_i_bulk {
  unsigned char *next;
  uint64_t ready;
} packbuf_i_bulk;

/* A leaf that is being read: its column and what its codec keeps from row to row. */
typedef struct packbuf_i_leaf_cells {
  packbuf_i_reader *reader;
  const packbuf_column *column;
  uint64_t row;           /* of the column, while one of its stored rows is read */
  uint64_t left;          /* cells still to be read, the one in turn included */
  const uint64_t *shape;  /* ndarray: in the arena, shared by all cells */
  packbuf_i_bulk bulk[2]; /* tensors, media, opaque values; shapes */
  unsigned attributes;    /* media: a bit for each attribute leaf that is there */
  packbuf_column attribute[PACKBUF_I_ATTRIBUTES];
} packbuf_i_leaf_cells;

/* Why the arena gave no memory for `size` bytes. */
static packbuf_status packbuf_i_no_room(const packbuf_i_reader *r, uint64_t size) {
  const packbuf_arena *arena = r->arena;
  if (arena->limit < r->arena_limit && (arena->used >= arena->limit || size > arena->limit - arena->used))
    return packbuf_i_broken(r->error, PACKBUF_RULE_D9, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  return packbuf_i_no_memory(r->error);
}

/* Asked before `size` bytes of a cell are looked through, which costs time though no memory. */
static packbuf_status packbuf_i_may_check(packbuf_i_reader *r, uint64_t size) {
  if (size > r->to_check) return packbuf_i_broken(r->error, PACKBUF_RULE_D9, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  r->to_check -= size;
  return PACKBUF_OK;
}

/* `count` items of `size` bytes from the arena. */
static packbuf_status packbuf_i_take(packbuf_i_reader *r, uint64_t count, size_t size, size_t alignment, void **out) {
  uint64_t bytes;
  *out = NULL;
  if (!packbuf_i_mul(count, size, &bytes) || bytes > SIZE_MAX) return packbuf_i_no_room(r, UINT64_MAX);
  *out = packbuf_arena_alloc(r->arena, (size_t)bytes, alignment);
  return *out ? PACKBUF_OK : packbuf_i_no_room(r, bytes + alignment);
}

static packbuf_status packbuf_i_take_one(packbuf_i_leaf_cells *cells, unsigned bulk, size_t size, void **out) {
  packbuf_i_bulk *b = &cells->bulk[bulk];
  if (b->ready == 0) {
    const uint64_t run = cells->left < 256 ? cells->left : 256;
    void *memory;
    const packbuf_status status = packbuf_i_take(cells->reader, run, size, 8, &memory);
    if (status != PACKBUF_OK) return status;
    b->next = (unsigned char *)memory;
    b->ready = run;
  }
  *out = b->next;
  b->next += size;
  b->ready--;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_broken_read(const packbuf_i_leaf_cells *cells, packbuf_rule rule, uint64_t at,
                                            uint64_t row) {
  return packbuf_i_broken_cell(cells->column, rule, at, row, cells->reader->error);
}

/* Bytes of a partial view in place, or *out NULL: they have to be copied. Refused before memory is taken for what is
 * not there. */
PACKBUF_I_RARE static packbuf_status packbuf_i_fetched_elements(const packbuf_i_leaf_cells *cells, uint64_t at,
                                                                uint64_t size, const void **out) {
  const packbuf_buffer *data = &cells->column->data;
  *out = NULL;
  if (packbuf_i_not_fetched_at(data->partial, data->offset + at, size) != data->offset + at + size)
    return packbuf_i_not_fetched(data, at, size, cells->row, cells->reader->error);
  if (packbuf_i_element_bits(data->dtype) == 8 || !packbuf_i_big_endian()) *out = packbuf_i_in_place(data, at, size);
  return PACKBUF_OK;
}

/* `count` elements of whole bytes at `first`, as bytes in native order: in place where that is what the buffer holds,
 * else a copy in the arena. */
static packbuf_status packbuf_i_elements(packbuf_i_leaf_cells *cells, uint64_t first, uint64_t count,
                                         const void **out) {
  const packbuf_buffer *data = &cells->column->data;
  const size_t element = packbuf_i_element_bits(data->dtype) / 8;
  packbuf_status status;
  void *copy;
  if (PACKBUF_I_UNLIKELY(first > data->count || count > data->count - first))
    return packbuf_i_broken_read(cells, PACKBUF_RULE_B13, packbuf_i_buffer_at(cells->column->view, data->index),
                                 PACKBUF_NOWHERE);
  if (data->bytes && (element == 1 || !packbuf_i_big_endian())) {
    *out = data->bytes + first * element;
    return PACKBUF_OK;
  }
  if (PACKBUF_I_UNLIKELY(data->partial != NULL && data->headers == NULL)) {
    status = packbuf_i_fetched_elements(cells, first * element, count * element, out);
    if (status != PACKBUF_OK || *out) return status;
  }
  status = packbuf_i_take(cells->reader, count, element, 16, &copy);
  if (status != PACKBUF_OK) return status;
  if (!packbuf_i_copy_native(data, first, (size_t)count, (uint8_t *)copy))
    return packbuf_i_not_fetched(data, first * element, count * element, cells->row, cells->reader->error);
  *out = copy;
  return PACKBUF_OK;
}

/* The elements of a cell in up to two pieces; two are joined in the arena. */
static packbuf_status packbuf_i_piece_elements(packbuf_i_leaf_cells *cells, const packbuf_piece *pieces, unsigned count,
                                               const void **out) {
  const packbuf_buffer *data = &cells->column->data;
  const size_t element = packbuf_i_element_bits(data->dtype) / 8;
  uint64_t total;
  packbuf_status status;
  void *copy;
  if (count < 2) return packbuf_i_elements(cells, count ? pieces[0].first : 0, count ? pieces[0].count : 0, out);
  for (unsigned i = 0; i < 2; i++) {
    if (PACKBUF_I_UNLIKELY(pieces[i].first > data->count || pieces[i].count > data->count - pieces[i].first))
      return packbuf_i_broken_read(cells, PACKBUF_RULE_B13, packbuf_i_buffer_at(cells->column->view, data->index),
                                   PACKBUF_NOWHERE);
  }
  if (!packbuf_i_add(pieces[0].count, pieces[1].count, &total)) return packbuf_i_no_room(cells->reader, UINT64_MAX);
  status = packbuf_i_take(cells->reader, total, element, 16, &copy);
  if (status != PACKBUF_OK) return status;
  for (unsigned i = 0; i < 2; i++) {
    if (!packbuf_i_copy_native(data, pieces[i].first, (size_t)pieces[i].count,
                               (uint8_t *)copy + (i ? (size_t)pieces[0].count * element : 0)))
      return packbuf_i_not_fetched(data, pieces[i].first * element, pieces[i].count * element, cells->row,
                                   cells->reader->error);
  }
  *out = copy;
  return PACKBUF_OK;
}

/* The bytes of a present cell of a column of bytes or text. */
static packbuf_status packbuf_i_cell_text(packbuf_i_leaf_cells *cells, uint64_t row, uint64_t *first, const void **data,
                                          size_t *size) {
  uint64_t count;
  packbuf_status status = packbuf_i_cell_run(cells->column, row, first, &count, cells->reader->error);
  if (status != PACKBUF_OK) return status;
  status = packbuf_i_elements(cells, *first, count, data);
  *size = (size_t)count; /* it lies in memory */
  return status;
}

/* The reading half of a codec. begin: once per call, may be NULL. read: one stored row, which is present. index, data:
 * its I7 to I12, and D3 to D9, over stored rows. */
typedef struct packbuf_i_codec_reader {
  packbuf_status (*begin)(packbuf_i_leaf_cells *cells);
  packbuf_status (*read)(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value);
  packbuf_status (*index)(const packbuf_column *column, packbuf_error *error);
  packbuf_status (*data)(const packbuf_column *column, packbuf_error *error);
} packbuf_i_codec_reader;

static const packbuf_i_codec_reader *packbuf_i_codec_reader_of(unsigned codec);
