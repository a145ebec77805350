/* core/select.c: what a selection gives: columns in place, columns copied out, rows as values. Every number is checked
 * again while it is copied, against the memory there is; what is written for one cell (offset, shape, data) comes from
 * one fetch.
 * May use: base, value (byte order), packed (rooms), access, convert, number, cells, pieces, picked, read.
 * Must not know: patterns, ranges. */

/* ---- sizes ---- */

static packbuf_status packbuf_i_add_size(const packbuf_i_picked *p, uint64_t *sum, uint64_t more) {
  return packbuf_i_add(*sum, more, sum) ? PACKBUF_OK : packbuf_i_too_much(p);
}

static packbuf_status packbuf_i_size_piece(const packbuf_i_picked *p, void *into, const packbuf_piece *piece,
                                           uint64_t row) {
  packbuf_selected_size *size = (packbuf_selected_size *)into;
  packbuf_piece bytes;
  packbuf_status status;
  if (!packbuf_i_is_media_list(&p->column)) return packbuf_i_add_size(p, &size->elements, piece->count);
  status = packbuf_i_picked_items(p, piece, row, &bytes);
  if (status == PACKBUF_OK) status = packbuf_i_add_size(p, &size->items, piece->count);
  return status == PACKBUF_OK ? packbuf_i_add_size(p, &size->elements, bytes.count) : status;
}

static packbuf_status packbuf_i_size_run(packbuf_i_picked *p, const packbuf_i_row_run *run,
                                         packbuf_selected_size *size) {
  const packbuf_column *c = &p->column;
  packbuf_i_regular regular;
  uint64_t elements;
  packbuf_status status = packbuf_i_add_size(p, &size->rows, run->count);
  if (status != PACKBUF_OK || run->count == 0 || !packbuf_i_has_data(c)) return status;
  if (c->node.codec == PACKBUF_CODEC_NDARRAY || packbuf_i_regular_cells(c, &regular)) {
    if (c->node.codec == PACKBUF_CODEC_NDARRAY) (void)packbuf_i_product(c->node.shape, c->node.rank, &regular.each);
    if (!packbuf_i_mul(regular.each, run->count, &elements)) return packbuf_i_too_much(p);
    return packbuf_i_add_size(p, &size->elements, elements);
  }
  return packbuf_i_run_pieces(p, run, packbuf_i_size_piece, size);
}

/* What does not depend on the rows. */
static void packbuf_i_begin_size(const packbuf_column *c, packbuf_selected_size *size) {
  memset(size, 0, sizeof *size);
  size->rank = c->node.rank;
  if (c->node.kind == PACKBUF_LEAF && c->node.codec == PACKBUF_CODEC_NDARRAY)
    memcpy(size->shape, c->node.shape, sizeof size->shape);
}

/* Bytes of an element of the data; 1 without any. */
static size_t packbuf_i_picked_element(const packbuf_i_picked *p) {
  return packbuf_i_has_data(&p->column) ? packbuf_i_element_bits(p->column.data.dtype) / 8 : 1;
}

/* The bytes of data, of `element` each. */
static packbuf_status packbuf_i_end_size(const packbuf_i_picked *p, size_t element, packbuf_selected_size *size) {
  const packbuf_column *c = &p->column;
  if (!packbuf_i_has_data(c)) return PACKBUF_OK;
  if (packbuf_i_mul(size->elements, element, &size->data_bytes) && size->data_bytes <= c->view->limits.decoded_bytes)
    return PACKBUF_OK;
  return packbuf_i_too_much(p);
}

PACKBUF_API packbuf_status packbuf_select_size(const packbuf_selection *selection, uint32_t node,
                                               packbuf_selected_size *size, packbuf_error *error) {
  packbuf_i_picked p;
  packbuf_i_row_run run;
  packbuf_status status = packbuf_i_pick(selection, node, &p, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_begin_size(&p.column, size);
  do {
    status = packbuf_i_next_run(&p, &run);
    if (status == PACKBUF_OK) status = packbuf_i_size_run(&p, &run, size);
  } while (status == PACKBUF_OK && run.count != 0);
  return status == PACKBUF_OK ? packbuf_i_end_size(&p, packbuf_i_picked_element(&p), size) : status;
}

/* ---- copying: where things go ---- */

/* A copy under way: what is done so far is where the next thing goes. */
typedef struct packbuf_i_copier {
  packbuf_i_picked *p;
  const packbuf_select_into *into;
  packbuf_selected_size done;
  uint64_t rows, room; /* rows to come in all; elements that the data have room for */
  packbuf_dtype dtype; /* of the data as they are wanted */
  size_t element, out; /* bytes of an element that is stored, and of what it becomes */
  int converts;
  uint64_t unfit;                /* LOSSY: which element of the stored data did not fit */
  int rowwise;                   /* something is wanted that has an entry for each row */
  packbuf_i_block_room rooms[2]; /* of packed data: for cells and what is their own, and for prefixes they share */
} packbuf_i_copier;

static packbuf_status packbuf_i_no_capacity(const packbuf_i_copier *w, const char *message) {
  return packbuf_i_fail_node(w->p->column.view, w->p->column.node.index, PACKBUF_CAPACITY, message, PACKBUF_NOWHERE,
                             w->p->error);
}

/* Takes room for `count` elements of data. */
static packbuf_status packbuf_i_take_room(packbuf_i_copier *w, uint64_t count, uint64_t *at) {
  *at = w->done.elements;
  if (!packbuf_i_add(w->done.elements, count, &w->done.elements)) return packbuf_i_too_much(w->p);
  if (w->into->data && w->done.elements > w->room)
    return packbuf_i_no_capacity(w, "the data do not fit into their destination");
  return PACKBUF_OK;
}

/* Copies a piece of the data, which lies within them, by way of a room when they are packed. */
static packbuf_status packbuf_i_copy_piece(packbuf_i_copier *w, const packbuf_piece *piece, packbuf_i_block_room *room,
                                           uint64_t row) {
  const packbuf_buffer *data = &w->p->column.data;
  uint8_t *out = (uint8_t *)w->into->data;
  uint64_t at;
  const packbuf_status status = packbuf_i_take_room(w, piece->count, &at);
  if (status != PACKBUF_OK || !out || piece->count == 0) return status;
  out += at * w->out;
  if (w->converts)
    return packbuf_i_convert_piece(w->p->column.view, data, room, piece->first, piece->count, w->dtype, out, &w->unfit,
                                   row, w->p->error);
  if (data->headers ? packbuf_i_unpack_piece(data, room, piece->first, piece->count, out)
                    : packbuf_i_copy_native(data, piece->first, (size_t)piece->count, out))
    return PACKBUF_OK;
  return packbuf_i_not_fetched(data, piece->first * w->element, piece->count * w->element, row, w->p->error);
}

/* Entry i of offsets or item_offsets. */
static packbuf_status packbuf_i_put_offset(const packbuf_i_copier *w, void *offsets, uint64_t i, uint64_t value) {
  if (!offsets) return PACKBUF_OK;
  if (w->into->offset_bits == 32) {
    const int32_t narrow = (int32_t)value;
    if (value > INT32_MAX)
      return packbuf_i_fail_node(w->p->column.view, w->p->column.node.index, PACKBUF_OUT_OF_RANGE,
                                 "an offset does not fit into 32 bits", PACKBUF_NOWHERE, w->p->error);
    memcpy((uint8_t *)offsets + 4 * i, &narrow, 4);
  } else {
    memcpy((uint8_t *)offsets + 8 * i, &value, 8);
  }
  return PACKBUF_OK;
}

/* ---- copying: masks and bytes a row ---- */

/* 64 bits of a bitmap from bit `from` on. */
static uint64_t packbuf_i_bits_from(const packbuf_buffer *bits, uint64_t from) {
  const unsigned shift = (unsigned)(from & 63);
  uint64_t word = packbuf_i_get_bits(bits, from >> 6) >> shift;
  if (shift) word |= packbuf_i_get_bits(bits, (from >> 6) + 1) << (64 - shift);
  return word;
}

/* Bits of a run's rows to out, from bit `at` on, which is zero so far. */
static void packbuf_i_copy_mask(const packbuf_buffer *bits, const packbuf_i_row_run *run, uint8_t *out, uint64_t at) {
  uint64_t k = 0;
  if (packbuf_i_consecutive(run) && at % 8 == 0) {
    uint8_t word[8];
    for (; k < run->count; k += 64) {
      const uint64_t left = run->count - k;
      uint64_t v = packbuf_i_bits_from(bits, run->first + k);
      if (left < 64) v &= (UINT64_C(1) << left) - 1;
      packbuf_i_store64(word, v);
      memcpy(out + (at + k) / 8, word, left < 64 ? (size_t)((left + 7) / 8) : 8);
    }
    return;
  }
  for (; k < run->count; k++, at++) {
    if (packbuf_i_get_bit(bits, packbuf_i_run_row(run, k))) out[at / 8] = (uint8_t)(out[at / 8] | 1u << at % 8);
  }
}

static void packbuf_i_set_mask(uint8_t *out, uint64_t at, uint64_t count) {
  for (; count && at % 8; at++, count--) out[at / 8] = (uint8_t)(out[at / 8] | 1u << at % 8);
  memset(out + at / 8, 0xFF, (size_t)(count / 8));
  if (count % 8) out[(at + count) / 8] = (uint8_t)((1u << count % 8) - 1);
}

static void packbuf_i_copy_masks(packbuf_i_copier *w, const packbuf_i_row_run *run) {
  const packbuf_column *c = &w->p->column;
  const packbuf_select_into *into = w->into;
  const int null = c->node.kind == PACKBUF_LEAF && c->node.codec == PACKBUF_CODEC_NULL;
  if (into->validity && packbuf_i_there(&c->validity))
    packbuf_i_copy_mask(&c->validity, run, into->validity, w->done.rows);
  else if (into->validity && !null) packbuf_i_set_mask(into->validity, w->done.rows, run->count);
  if (into->missing && packbuf_i_there(&c->missing)) packbuf_i_copy_mask(&c->missing, run, into->missing, w->done.rows);
}

/* The types byte of stored row or item i. */
static packbuf_status packbuf_i_copy_type(packbuf_i_copier *w, uint64_t i, uint64_t row, uint64_t at) {
  const packbuf_column *c = &w->p->column;
  uint8_t type = 0;
  if (packbuf_i_get8(&c->types, i, &type) && packbuf_i_type_allowed(&c->node, type)) {
    w->into->types[at] = type;
    return PACKBUF_OK;
  }
  return packbuf_i_broken_picked(w->p, PACKBUF_RULE_I12, packbuf_i_element_at(c->view, &c->types, i), row);
}

static packbuf_status packbuf_i_copy_types(packbuf_i_copier *w, const packbuf_i_row_run *run) {
  const packbuf_column *c = &w->p->column;
  packbuf_status status = PACKBUF_OK;
  if (!w->into->types || packbuf_i_is_media_list(c)) return PACKBUF_OK;
  memset(w->into->types + w->done.rows, 0, (size_t)run->count);
  for (uint64_t k = 0; packbuf_i_there(&c->types) && status == PACKBUF_OK && k < run->count; k++) {
    const uint64_t row = packbuf_i_run_row(run, k);
    uint64_t stored = 0;
    int state = 0;
    status = packbuf_cell_state(c, row, &state, w->p->error);
    if (status != PACKBUF_OK || state != 1) continue;
    status = packbuf_i_stored_row(c, row, &stored, w->p->error);
    if (status == PACKBUF_OK) status = packbuf_i_copy_type(w, stored, row, w->done.rows + k);
  }
  return status;
}

static packbuf_status packbuf_i_copy_lengths(packbuf_i_copier *w, const packbuf_i_row_run *run) {
  const packbuf_column *c = &w->p->column;
  packbuf_status status = PACKBUF_OK;
  if (!w->into->lengths || c->node.kind != PACKBUF_NODE_LIST) return PACKBUF_OK;
  for (uint64_t k = 0; status == PACKBUF_OK && k < run->count; k++) {
    uint64_t none;
    status = packbuf_cell_extent(c, packbuf_i_run_row(run, k), &none, &w->into->lengths[w->done.rows + k], w->p->error);
  }
  return status;
}

/* ---- copying: arrays ---- */

/* Rows of a few bytes, by a size that the compiler knows. */
#define PACKBUF_I_GATHER_ROWS(bytes) \
  for (uint64_t k = 0; k < run->count; k++) memcpy(out + k * (bytes), from + packbuf_i_run_row(run, k) * (bytes), bytes)

/* Rows of `size` bytes each, apart from each other, one after the other to out. */
static void packbuf_i_gather_rows(const uint8_t *from, const packbuf_i_row_run *run, size_t size, uint8_t *out) {
  switch (size) {
    case 1: PACKBUF_I_GATHER_ROWS(1); return;
    case 2: PACKBUF_I_GATHER_ROWS(2); return;
    case 4: PACKBUF_I_GATHER_ROWS(4); return;
    case 8: PACKBUF_I_GATHER_ROWS(8); return;
    default: break;
  }
  for (uint64_t k = 0; k < run->count; k++) {
    const uint8_t *row = from + packbuf_i_run_row(run, k) * size;
#if defined(__GNUC__) || defined(__clang__)
    if (k + 1 < run->count) __builtin_prefetch(from + packbuf_i_run_row(run, k + 1) * size);
#endif
    memcpy(out + k * size, row, size);
  }
}

/* Regular cells: all at once where they are side by side or equal, else row by row. */
static packbuf_status packbuf_i_copy_regular(packbuf_i_copier *w, const packbuf_i_row_run *run,
                                             const packbuf_i_regular *regular) {
  const packbuf_buffer *data = &w->p->column.data;
  const size_t size = (size_t)regular->each * w->element;
  packbuf_status status = PACKBUF_OK;
  packbuf_piece piece;
  uint64_t total, at;
  if (regular->each == 0 || run->count == 0) return PACKBUF_OK;
  if (!packbuf_i_mul(regular->each, run->count, &total)) return packbuf_i_too_much(w->p);
  piece.first = regular->base + run->first * regular->each;
  piece.count = total;
  if (packbuf_i_consecutive(run)) return packbuf_i_copy_piece(w, &piece, &w->rooms[0], run->first);
  if (!w->into->data || (!w->converts && (data->bytes || data->storage == PACKBUF_CONSTANT))) {
    uint8_t *out = (uint8_t *)w->into->data;
    status = packbuf_i_take_room(w, total, &at);
    if (status != PACKBUF_OK || !out) return status;
    out += at * w->element;
    if (!data->bytes) return packbuf_i_copy_native(data, 0, (size_t)total, out), PACKBUF_OK;
    packbuf_i_gather_rows(data->bytes + regular->base * w->element, run, size, out);
    if (packbuf_i_big_endian()) packbuf_i_swap(out, total * w->element, packbuf_i_swap_unit(data->dtype));
    return PACKBUF_OK;
  }
  piece.count = regular->each;
  for (uint64_t k = 0; status == PACKBUF_OK && k < run->count; k++) {
    const uint64_t row = packbuf_i_run_row(run, k);
    piece.first = regular->base + row * regular->each;
    status = packbuf_i_copy_piece(w, &piece, &w->rooms[0], row);
  }
  return status;
}

/* Arrays of which rows are shared: an absent cell is zeros. */
static packbuf_status packbuf_i_copy_shared_arrays(packbuf_i_copier *w, const packbuf_i_row_run *run, uint64_t each) {
  const packbuf_column *c = &w->p->column;
  packbuf_status status = packbuf_i_may_ask(w->p, run->count);
  for (uint64_t k = 0; status == PACKBUF_OK && k < run->count && each != 0; k++) {
    const uint64_t row = packbuf_i_run_row(run, k);
    packbuf_piece pieces[2];
    unsigned count = 0;
    uint64_t at;
    status = packbuf_cell_pieces(c, row, pieces, &count, w->p->error);
    if (status == PACKBUF_OK && count != 0) {
      status = packbuf_i_copy_piece(w, &pieces[0], &w->rooms[0], row);
    } else if (status == PACKBUF_OK) {
      status = packbuf_i_take_room(w, each, &at);
      if (status == PACKBUF_OK && w->into->data)
        memset((uint8_t *)w->into->data + at * w->out, 0, (size_t)each * w->out);
    }
  }
  return status;
}

/* ---- copying: ragged cells ---- */

/* Offsets of consecutive joined cells, which `piece` spans: what is written ascends and ends where the data end. */
static packbuf_status packbuf_i_copy_joined_offsets(packbuf_i_copier *w, const packbuf_buffer *offsets, uint64_t first,
                                                    uint64_t count, const packbuf_piece *piece, uint64_t at,
                                                    uint64_t start, void *out) {
  uint64_t before = piece->first;
  packbuf_status status = PACKBUF_OK;
  if (!out) return PACKBUF_OK;
  for (uint64_t k = 1; k < count; k++) {
    uint64_t offset = 0;
    if (!packbuf_i_get64(offsets, first + k, &offset) || offset < before || offset - piece->first > piece->count)
      return packbuf_i_broken_picked(w->p, PACKBUF_RULE_I7, packbuf_i_element_at(w->p->column.view, offsets, first + k),
                                     first + k);
    before = offset;
    status = packbuf_i_put_offset(w, out, at + k, start + (offset - piece->first));
    if (status != PACKBUF_OK) return status;
  }
  return packbuf_i_put_offset(w, out, at + count, start + piece->count);
}

/* Number of dimensions and shape of a present or absent cell with `count` elements. */
static packbuf_status packbuf_i_copy_shape(packbuf_i_copier *w, uint64_t row, uint64_t count, uint64_t at) {
  const packbuf_column *c = &w->p->column;
  uint64_t shape[PACKBUF_MAX_RANK] = {0}, stored = 0;
  unsigned rank = 0;
  int has = 0;
  packbuf_status status = packbuf_i_place(c, row, &has, &stored, w->p->error);
  if (status == PACKBUF_OK && has) status = packbuf_i_ragged_shape(c, stored, count, &rank, shape, w->p->error);
  if (status != PACKBUF_OK) return status;
  if (!has && count != 0) /* it was present a moment ago */
    return packbuf_i_broken_picked(w->p, PACKBUF_RULE_I11, packbuf_i_node_at(c->view, c->node.index), row);
  if (w->into->ndims) w->into->ndims[at] = (uint8_t)rank;
  for (unsigned d = 0; d < PACKBUF_MAX_RANK; d++) {
    if (w->into->shape[d]) w->into->shape[d][at] = d < rank ? shape[d] : 0;
  }
  return PACKBUF_OK;
}

/* Items of a media list: their bytes, offsets and types. */
static packbuf_status packbuf_i_copy_items(packbuf_i_copier *w, const packbuf_piece *items, uint64_t row) {
  const packbuf_select_into *into = w->into;
  const packbuf_column *c = &w->p->column;
  const uint64_t at = w->done.items, start = w->done.elements;
  packbuf_piece bytes;
  packbuf_status status = packbuf_i_picked_items(w->p, items, row, &bytes);
  if (status != PACKBUF_OK) return status;
  if (!packbuf_i_add(at, items->count, &w->done.items)) return packbuf_i_too_much(w->p);
  if ((into->offsets || into->types) && w->done.items > into->items)
    return packbuf_i_no_capacity(w, "the items do not fit into their destinations");
  status = packbuf_i_copy_joined_offsets(w, &c->offsets, items->first, items->count, &bytes, at, start, into->offsets);
  if (into->types) memset(into->types + at, 0, (size_t)items->count);
  for (uint64_t i = 0; into->types && packbuf_i_there(&c->types) && status == PACKBUF_OK && i < items->count; i++)
    status = packbuf_i_copy_type(w, items->first + i, row, at + i);
  return status == PACKBUF_OK ? packbuf_i_copy_piece(w, &bytes, &w->rooms[0], row) : status;
}

static packbuf_status packbuf_i_copy_cell(packbuf_i_copier *w, const packbuf_piece *pieces, unsigned count,
                                          uint64_t row) {
  packbuf_status status = PACKBUF_OK;
  for (unsigned i = 0; status == PACKBUF_OK && i < count; i++)
    status = packbuf_i_is_media_list(&w->p->column)
                 ? packbuf_i_copy_items(w, &pieces[i], row)
                 : packbuf_i_copy_piece(w, &pieces[i], &w->rooms[i + 1 < count], row);
  return status;
}

static void packbuf_i_fetch_ahead(const packbuf_column *c, const packbuf_piece *pieces, unsigned count,
                                  size_t element) {
#if defined(__GNUC__) || defined(__clang__)
  if (count != 0 && c->data.bytes && !packbuf_i_is_media_list(c))
    __builtin_prefetch(c->data.bytes + pieces[0].first * element);
#else
  (void)c, (void)pieces, (void)count, (void)element;
#endif
}

/* Cells one by one, each asked for while the one before is still to be copied. */
static packbuf_status packbuf_i_copy_cells(packbuf_i_copier *w, const packbuf_i_row_run *run, int shapes) {
  const packbuf_select_into *into = w->into;
  const packbuf_column *c = &w->p->column;
  const int list = packbuf_i_is_media_list(c);
  void *offsets = list ? into->item_offsets : into->offsets;
  packbuf_piece pieces[2][2];
  unsigned counts[2] = {0, 0};
  packbuf_status status = packbuf_i_may_ask(w->p, run->count);
  if (status == PACKBUF_OK && run->count)
    status = packbuf_cell_pieces(c, packbuf_i_run_row(run, 0), pieces[0], &counts[0], w->p->error);
  for (uint64_t k = 0; status == PACKBUF_OK && k < run->count; k++) {
    const unsigned now = (unsigned)(k & 1), next = 1 - now;
    const uint64_t row = packbuf_i_run_row(run, k), before = w->done.elements;
    if (k + 1 < run->count) {
      status = packbuf_cell_pieces(c, packbuf_i_run_row(run, k + 1), pieces[next], &counts[next], w->p->error);
      if (status != PACKBUF_OK) return status;
      packbuf_i_fetch_ahead(c, pieces[next], counts[next], w->element);
    }
    status = packbuf_i_copy_cell(w, pieces[now], counts[now], row);
    if (status == PACKBUF_OK)
      status = packbuf_i_put_offset(w, offsets, w->done.rows + k + 1, list ? w->done.items : w->done.elements);
    if (status == PACKBUF_OK && shapes)
      status = packbuf_i_copy_shape(w, row, w->done.elements - before, w->done.rows + k);
  }
  return status;
}

/* Quick cells whose bytes are there, without their shapes. */
static packbuf_status packbuf_i_copy_quick(packbuf_i_copier *w, const packbuf_i_row_run *run) {
  const packbuf_column *c = &w->p->column;
  const size_t element = w->element;
  uint8_t *out = (uint8_t *)w->into->data;
  uint64_t at = w->done.elements;
  packbuf_status status = PACKBUF_OK;
  packbuf_piece now, next;
  int known = run->count != 0 && packbuf_i_quick_piece(c, packbuf_i_run_row(run, 0), &next);
  for (uint64_t k = 0; k < run->count; k++) {
    if (PACKBUF_I_UNLIKELY(!known)) {
      uint64_t first, count;
      status = packbuf_cell_extent(c, packbuf_i_run_row(run, k), &first, &count, w->p->error);
      return status != PACKBUF_OK ? status : packbuf_i_no_capacity(w, "the offsets changed while they were read");
    }
    now = next;
    if (k + 1 < run->count) {
      known = packbuf_i_quick_piece(c, packbuf_i_run_row(run, k + 1), &next);
      if (known) packbuf_i_fetch_ahead(c, &next, 1, element);
    }
    if (out && now.count > w->room - at) return packbuf_i_no_capacity(w, "the data do not fit into their destination");
    if (out && now.count) memcpy(out + at * element, c->data.bytes + now.first * element, (size_t)now.count * element);
    if (!packbuf_i_add(at, now.count, &at)) return packbuf_i_too_much(w->p);
    status = packbuf_i_put_offset(w, w->into->offsets, w->done.rows + k + 1, at);
    if (status != PACKBUF_OK) return status;
  }
  if (out && packbuf_i_big_endian())
    packbuf_i_swap(out + w->done.elements * element, (at - w->done.elements) * element,
                   packbuf_i_swap_unit(c->data.dtype));
  w->done.elements = at;
  return PACKBUF_OK;
}

/* Consecutive joined cells: one piece of data. */
static packbuf_status packbuf_i_copy_joined(packbuf_i_copier *w, const packbuf_i_row_run *run) {
  const packbuf_column *c = &w->p->column;
  const int list = packbuf_i_is_media_list(c);
  packbuf_piece piece;
  packbuf_status status = packbuf_i_joined_run(w->p, run->first, run->count, &piece);
  if (status == PACKBUF_OK)
    status = packbuf_i_copy_joined_offsets(w, list ? &c->item_offsets : &c->offsets, run->first, run->count, &piece,
                                           w->done.rows, list ? w->done.items : w->done.elements,
                                           list ? w->into->item_offsets : w->into->offsets);
  return status == PACKBUF_OK ? packbuf_i_copy_cell(w, &piece, 1, run->first) : status;
}

/* Regular ragged cells: the offsets are counted, not read. */
static packbuf_status packbuf_i_copy_counted(packbuf_i_copier *w, const packbuf_i_row_run *run,
                                             const packbuf_i_regular *regular) {
  const uint64_t start = w->done.elements;
  packbuf_status status = packbuf_i_copy_regular(w, run, regular);
  for (uint64_t k = 0; w->into->offsets && status == PACKBUF_OK && k < run->count; k++)
    status = packbuf_i_put_offset(w, w->into->offsets, w->done.rows + k + 1, start + (k + 1) * regular->each);
  return status;
}

static packbuf_status packbuf_i_copy_data(packbuf_i_copier *w, const packbuf_i_row_run *run) {
  const packbuf_column *c = &w->p->column;
  int shapes = w->into->ndims != NULL;
  packbuf_i_regular regular;
  if (!packbuf_i_has_data(c)) return PACKBUF_OK;
  if (c->node.codec == PACKBUF_CODEC_NDARRAY) {
    if (packbuf_i_regular_cells(c, &regular)) return packbuf_i_copy_regular(w, run, &regular);
    (void)packbuf_i_product(c->node.shape, c->node.rank, &regular.each);
    return packbuf_i_copy_shared_arrays(w, run, regular.each);
  }
  for (unsigned d = 0; d < PACKBUF_MAX_RANK; d++) shapes |= w->into->shape[d] != NULL;
  shapes &= packbuf_i_ragged_numbers(c->node.codec);
  if (!shapes && packbuf_i_regular_cells(c, &regular)) return packbuf_i_copy_counted(w, run, &regular);
  if (!shapes && packbuf_i_consecutive(run) && packbuf_i_joined_cells(c)) return packbuf_i_copy_joined(w, run);
  if (!shapes && !w->converts && packbuf_i_quick_cells(c) && c->data.bytes) return packbuf_i_copy_quick(w, run);
  return packbuf_i_copy_cells(w, run, shapes);
}

/* The row of a LOSSY element, when rows were copied as one piece: the last that begins with it or before. */
static void packbuf_i_name_unfit(const packbuf_i_copier *w, const packbuf_i_row_run *run) {
  const packbuf_column *c = &w->p->column;
  uint64_t low = run->first, high = run->first + run->count;
  packbuf_i_regular regular;
  if (!w->p->error || !packbuf_i_consecutive(run)) return;
  if (packbuf_i_regular_cells(c, &regular)) {
    if (regular.each) w->p->error->row = (w->unfit - regular.base) / regular.each;
  } else if (packbuf_i_joined_cells(c)) {
    while (high - low > 1) {
      const uint64_t middle = low + (high - low) / 2;
      uint64_t offset = 0;
      if (packbuf_i_get64(&c->offsets, middle, &offset) && offset <= w->unfit) low = middle;
      else high = middle;
    }
    w->p->error->row = low;
  }
}

/* ---- copying: the whole ---- */

static packbuf_status packbuf_i_copy_run(packbuf_i_copier *w, const packbuf_i_row_run *run) {
  packbuf_status status;
  if (run->count > w->rows - w->done.rows) /* items that were not there when they were counted */
    return packbuf_i_no_capacity(w, "the rows do not fit into their destinations");
  if (w->rowwise) packbuf_i_copy_masks(w, run);
  status = packbuf_i_copy_types(w, run);
  if (status == PACKBUF_OK) status = packbuf_i_copy_lengths(w, run);
  if (status == PACKBUF_OK) status = packbuf_i_copy_data(w, run);
  if (status == PACKBUF_LOSSY) packbuf_i_name_unfit(w, run);
  w->done.rows += run->count;
  return status;
}

/* Rows in all, whether they fit, and what stands before the first. */
static packbuf_status packbuf_i_begin_copy(packbuf_i_copier *w) {
  const packbuf_select_into *into = w->into;
  const packbuf_column *c = &w->p->column;
  const int list = packbuf_i_is_media_list(c);
  packbuf_i_picked counting = *w->p;
  packbuf_i_row_run run;
  packbuf_status status = PACKBUF_OK;
  packbuf_i_begin_size(c, &w->done);
  w->rows = 0;
  do {
    status = packbuf_i_next_run(&counting, &run);
    if (status == PACKBUF_OK && !packbuf_i_add(w->rows, run.count, &w->rows)) status = packbuf_i_too_much(w->p);
  } while (status == PACKBUF_OK && run.count != 0);
  if (status != PACKBUF_OK) return status;
  w->rowwise = into->offsets || into->item_offsets || into->lengths || into->ndims || into->types || into->validity ||
               into->missing;
  for (unsigned d = 0; d < PACKBUF_MAX_RANK; d++) w->rowwise |= into->shape[d] != NULL;
  if ((w->rowwise && w->rows > into->rows) || w->rows > SIZE_MAX / 16)
    return packbuf_i_no_capacity(w, "the rows do not fit into their destinations");
  if (into->offset_bits != 0 && into->offset_bits != 32 && into->offset_bits != 64)
    return packbuf_i_fail(w->p->error, PACKBUF_INVALID_ARGUMENT, "offset_bits is none of 0, 32 and 64", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (into->validity) memset(into->validity, 0, (size_t)((w->rows + 7) / 8));
  if (into->missing) memset(into->missing, 0, (size_t)((w->rows + 7) / 8));
  status = packbuf_i_put_offset(w, into->offsets, 0, 0);
  return status == PACKBUF_OK && list ? packbuf_i_put_offset(w, into->item_offsets, 0, 0) : status;
}

/* What becomes of an element. */
static packbuf_status packbuf_i_begin_elements(packbuf_i_copier *w) {
  const packbuf_buffer *data = &w->p->column.data;
  w->dtype = w->into->dtype;
  w->element = w->out = packbuf_i_picked_element(w->p);
  w->converts =
      w->dtype.bits != 0 && packbuf_i_has_data(&w->p->column) && !packbuf_i_dtype_equal(w->dtype, data->dtype);
  if (w->converts) {
    if (!packbuf_i_converts(data->dtype, w->dtype) || !packbuf_i_numeric(w->p->column.node.codec))
      return packbuf_i_cannot_convert(w->p->error);
    w->out = w->dtype.bits / 8u;
  }
  w->room = w->into->data_capacity / w->out;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_select_copy(const packbuf_selection *selection, uint32_t node,
                                               const packbuf_select_into *into, packbuf_selected_size *size,
                                               packbuf_error *error) {
  packbuf_i_picked p;
  packbuf_i_copier w;
  packbuf_i_row_run run;
  packbuf_status status = packbuf_i_pick(selection, node, &p, error);
  if (status != PACKBUF_OK) return status;
  w.p = &p;
  w.into = into;
  status = packbuf_i_begin_elements(&w);
  if (status != PACKBUF_OK) return status;
  packbuf_i_empty_room(&w.rooms[0]);
  packbuf_i_empty_room(&w.rooms[1]);
  status = packbuf_i_begin_copy(&w);
  while (status == PACKBUF_OK) {
    status = packbuf_i_next_run(&p, &run);
    if (status != PACKBUF_OK || run.count == 0) break;
    status = packbuf_i_copy_run(&w, &run);
  }
  if (status == PACKBUF_OK) status = packbuf_i_end_size(&p, w.out, &w.done);
  if (status == PACKBUF_OK && size) *size = w.done;
  return status;
}

/* ---- in place ---- */

static packbuf_status packbuf_i_not_in_place(const packbuf_i_picked *p, packbuf_status code, const char *message) {
  return packbuf_i_fail_node(p->column.view, p->column.node.index, code, message, PACKBUF_NOWHERE, p->error);
}

PACKBUF_API packbuf_status packbuf_select_tensor(const packbuf_selection *selection, uint32_t node,
                                                 packbuf_selected_tensor *out, packbuf_error *error) {
  packbuf_i_picked p;
  packbuf_i_regular regular;
  const packbuf_buffer *data = &p.column.data;
  const packbuf_node *n = &p.column.node;
  const void *elements = NULL;
  uint64_t low, high, size;
  packbuf_status status = packbuf_i_pick(selection, node, &p, error);
  if (status != PACKBUF_OK) return status;
  if (n->kind != PACKBUF_LEAF || n->codec != PACKBUF_CODEC_NDARRAY || n->rank >= PACKBUF_MAX_RANK)
    return packbuf_i_not_in_place(&p, PACKBUF_WRONG_TYPE, "not an ndarray, or one of 9 dimensions with its rows");
  if (p.by_item || selection->index || !packbuf_i_regular_cells(&p.column, &regular))
    return packbuf_i_not_in_place(&p, PACKBUF_NOT_STORED,
                                  "the rows are a list, or shared: copy them out with packbuf_select_copy");
  memset(out, 0, sizeof *out);
  size = packbuf_i_element_bits(data->dtype) / 8;
  out->tensor.dtype = data->dtype;
  out->tensor.rank = (uint8_t)(n->rank + 1);
  out->tensor.form = n->form == PACKBUF_FORM_ARRAY ? PACKBUF_FORM_ARRAY : PACKBUF_FORM_TENSOR;
  out->tensor.shape = out->shape;
  out->tensor.strides = out->strides;
  out->shape[0] = selection->rows;
  memcpy(out->shape + 1, n->shape, n->rank * sizeof *out->shape);
  low = high = selection->first;
  if (selection->rows) {
    const uint64_t last = packbuf_selected_row(selection, selection->rows - 1);
    if (last < low) low = last;
    else high = last;
    high++;
  }
  low *= regular.each * size; /* below the byte length of the data, which is below 2^63 */
  high *= regular.each * size;
  if (data->partial && !data->headers && !packbuf_i_in_place(data, low, high - low))
    return packbuf_i_not_fetched(data, low, high - low, PACKBUF_NOWHERE, error);
  status = packbuf_i_typed_at(data, data->headers ? NULL : packbuf_i_in_place(data, low, high - low), data->dtype,
                              &elements, error);
  if (status != PACKBUF_OK) return packbuf_i_not_in_place(&p, status, error ? error->message : NULL);
  out->tensor.data = (const uint8_t *)elements + (selection->first * regular.each * size - low);
  if (regular.each == 0 || selection->rows == 0) return PACKBUF_OK; /* nothing to step over */
  for (unsigned d = n->rank + 1u; d-- > 1;) {
    out->strides[d] = (int64_t)size;
    size *= out->shape[d];
  }
  out->strides[0] = selection->step * (int64_t)size;
  return PACKBUF_OK;
}

/* Whether a mask, where there is one, can be pointed to from row `first` on. */
static int packbuf_i_mask_lies(const packbuf_buffer *mask, uint64_t first) {
  return !packbuf_i_there(mask) || (mask->bytes && first % 8 == 0);
}

PACKBUF_API packbuf_status packbuf_select_ragged(const packbuf_selection *selection, uint32_t node, packbuf_ragged *out,
                                                 packbuf_error *error) {
  packbuf_i_picked p;
  packbuf_i_row_run run;
  packbuf_piece piece;
  const packbuf_column *c = &p.column;
  const void *elements = NULL, *offsets = NULL;
  packbuf_status status = packbuf_i_pick(selection, node, &p, error);
  if (status != PACKBUF_OK) return status;
  if (!packbuf_i_has_data(c) || c->node.codec == PACKBUF_CODEC_NDARRAY || packbuf_i_is_media_list(c))
    return packbuf_i_not_in_place(&p, PACKBUF_WRONG_TYPE, "not a leaf with one run of elements a cell");
  status = packbuf_i_next_run(&p, &run);
  if (status != PACKBUF_OK) return status;
  if (p.by_item || !packbuf_i_consecutive(&run) || !packbuf_i_joined_cells(c))
    return packbuf_i_not_in_place(
        &p, PACKBUF_NOT_STORED,
        "the rows are not consecutive, or some are shared: copy them out with packbuf_select_copy");
  if (!packbuf_i_mask_lies(&c->validity, run.first) || !packbuf_i_mask_lies(&c->missing, run.first))
    return packbuf_i_not_in_place(
        &p, PACKBUF_NOT_STORED,
        "its mask is packed or computed, or does not begin at a byte: copy rows out with packbuf_select_copy");
  status = packbuf_i_joined_run(&p, run.first, run.count, &piece);
  if (status == PACKBUF_OK) status = packbuf_get_typed(&c->data, c->data.dtype, &elements, error);
  if (status == PACKBUF_OK) {
    status = packbuf_get_typed(&c->offsets, c->offsets.dtype, &offsets, error);
    if (status == PACKBUF_NOT_STORED && c->offsets.bytes == NULL)
      return packbuf_i_not_in_place(&p, status,
                                    "its offsets are packed or computed: copy rows out with packbuf_select_copy");
  }
  if (status == PACKBUF_NOT_STORED || status == PACKBUF_UNALIGNED)
    return packbuf_i_not_in_place(&p, status, error ? error->message : NULL);
  if (status != PACKBUF_OK) return status;
  memset(out, 0, sizeof *out);
  out->data = elements;
  out->dtype = c->data.dtype;
  out->form = c->node.form;
  out->offset_bits = 64;
  out->items = c->data.count;
  out->offsets = (const uint8_t *)offsets + 8 * run.first;
  if (packbuf_i_there(&c->validity)) out->validity = c->validity.bytes + run.first / 8;
  if (packbuf_i_there(&c->missing)) out->missing = c->missing.bytes + run.first / 8;
  return PACKBUF_OK;
}

/* ---- rows as values ---- */

PACKBUF_API packbuf_status packbuf_select_values(const packbuf_selection *selection, uint64_t first, uint64_t count,
                                                 packbuf_arena *arena, packbuf_value *rows, packbuf_error *error) {
  const packbuf_view *view = selection->view;
  const uint64_t middle = packbuf_i_fields_end(view);
  packbuf_i_reader r = packbuf_i_begin_read(view, arena, error);
  packbuf_i_slots out;
  r.selection = selection;
  out.first = rows;
  out.step = sizeof *rows;
  if (first > selection->rows || count > selection->rows - first)
    return packbuf_i_end_read(
        &r, packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "the selection has fewer rows", PACKBUF_NOWHERE, first));
  return packbuf_i_end_read(
      &r, packbuf_i_read_dicts(&r, NULL, selection->scope ? middle : 0, selection->scope ? view->node_count : middle,
                               first, count, out, 0));
}
