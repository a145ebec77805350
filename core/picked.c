/* core/picked.c: one node of a selection: its column, the runs of its rows, and where their cells lie. Sizing, copying
 * and finding ranges all ask here, so that they agree on every byte. A column is regular when one multiplication places
 * a cell, joined when consecutive cells lie end to end, else it is asked cell by cell.
 * May use: base, access, cells, pieces. Must not know: destinations, ranges. */

/* Rows of one column: index[k], or first + k * step. All are rows of the column. */
typedef struct packbuf_i_row_run {
  const uint64_t *index;
  uint64_t first, count;
  int64_t step;
} packbuf_i_row_run;

static uint64_t packbuf_i_run_row(const packbuf_i_row_run *run, uint64_t k) {
  return run->index ? run->index[k] : run->first + k * (uint64_t)run->step;
}

static int packbuf_i_consecutive(const packbuf_i_row_run *run) {
  return run->index == NULL && (run->step == 1 || run->count <= 1);
}

typedef struct packbuf_i_picked {
  const packbuf_selection *selection;
  packbuf_column column;
  packbuf_column list; /* of an attribute leaf whose rows are items: the media list they belong to */
  int by_item;
  uint64_t next;  /* row of the selection to go on with */
  uint64_t asked; /* cells that were asked for one by one so far */
  packbuf_piece pieces[2];
  unsigned piece, piece_count;
  packbuf_error *error;
  packbuf_i_unit_windows windows;
} packbuf_i_picked;

static packbuf_status packbuf_i_broken_picked(const packbuf_i_picked *p, packbuf_rule rule, uint64_t at, uint64_t row) {
  return packbuf_i_broken_cell(&p->column, rule, at, row, p->error);
}

/* D9: what one call may do for an untrusted packed buffer. */
static packbuf_status packbuf_i_too_much(const packbuf_i_picked *p) {
  return packbuf_i_broken_picked(p, PACKBUF_RULE_D9, packbuf_i_node_at(p->column.view, p->column.node.index) + 48,
                                 PACKBUF_NOWHERE);
}

/* Whether cells that are neither regular nor joined may be asked one by one, together with those before: work for rows
 * of which nothing need be stored. */
static packbuf_status packbuf_i_may_ask(packbuf_i_picked *p, uint64_t rows) {
  if (rows > p->column.view->limits.decoded_bytes / 16 - p->asked) return packbuf_i_too_much(p);
  p->asked += rows;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_pick(const packbuf_selection *selection, uint32_t node, packbuf_i_picked *p,
                                     packbuf_error *error) {
  const packbuf_view *view = selection->view;
  packbuf_status status;
  p->selection = selection;
  p->error = error;
  p->by_item = 0;
  p->next = p->asked = 0;
  p->piece = p->piece_count = 0;
  if (node >= view->node_count || selection->flags[node] == 0)
    return packbuf_i_fail(error, PACKBUF_NOT_FOUND, "the selection has no such node", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  status = packbuf_open_column(view, node, &p->column, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_open_windows(&p->column, &p->windows);
  if (p->column.node.parent != PACKBUF_NO_NODE) {
    packbuf_node up;
    status = packbuf_get_node(view, p->column.node.parent, &up, error);
    if (status == PACKBUF_OK && up.kind == PACKBUF_LEAF && up.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) {
      status = packbuf_open_column(view, p->column.node.parent, &p->list, error);
      p->by_item = 1;
      if (status == PACKBUF_OK) status = packbuf_i_may_ask(p, selection->rows);
    }
    if (status != PACKBUF_OK) return status;
  }
  if ((p->by_item ? p->list.node.rows : p->column.node.rows) != (selection->scope ? 1 : view->rows))
    return packbuf_i_broken_picked(p, PACKBUF_RULE_N9, packbuf_i_node_at(view, node) + 48, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* The next run of rows; count 0 at the end. A column of rows has one, one of items a run for each piece of a list. */
static packbuf_status packbuf_i_next_run(packbuf_i_picked *p, packbuf_i_row_run *run) {
  const packbuf_selection *s = p->selection;
  memset(run, 0, sizeof *run);
  if (!p->by_item) {
    if (p->next) return PACKBUF_OK;
    p->next = 1;
    run->index = s->index;
    run->first = s->first;
    run->step = s->step;
    run->count = s->rows;
    return PACKBUF_OK;
  }
  run->step = 1;
  while (p->piece == p->piece_count && p->next < s->rows) {
    const packbuf_status status =
        packbuf_cell_pieces(&p->list, packbuf_selected_row(s, p->next++), p->pieces, &p->piece_count, p->error);
    if (status != PACKBUF_OK) return status;
    p->piece = 0;
  }
  if (p->piece == p->piece_count) return PACKBUF_OK;
  run->first = p->pieces[p->piece].first;
  run->count = p->pieces[p->piece].count;
  p->piece++;
  if (run->first <= p->column.node.rows && run->count <= p->column.node.rows - run->first) return PACKBUF_OK;
  return packbuf_i_broken_picked(p, PACKBUF_RULE_B13, packbuf_i_node_at(s->view, p->column.node.index) + 48,
                                 PACKBUF_NOWHERE);
}

static int packbuf_i_has_data(const packbuf_column *c) {
  return c->node.kind == PACKBUF_LEAF && c->node.codec != PACKBUF_CODEC_NULL;
}

static int packbuf_i_is_media_list(const packbuf_column *c) {
  return c->node.kind == PACKBUF_LEAF && c->node.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
}

/* Cell `row` is data[base + row * each .. + each), for every row of the column. */
typedef struct packbuf_i_regular {
  uint64_t base, each;
} packbuf_i_regular;

/* Whether the cells of a leaf are regular: arrays, and ragged cells whose offsets are computed, none of them shared or
 * masked one by one. That they lie within the data has been checked when this says so. */
static int packbuf_i_regular_cells(const packbuf_column *c, packbuf_i_regular *regular) {
  uint64_t end;
  if (packbuf_i_there(&c->row_index) || packbuf_i_there(&c->prefix_length)) return 0;
  regular->base = 0;
  if (c->node.codec == PACKBUF_CODEC_NDARRAY)
    return packbuf_i_product(c->node.shape, c->node.rank, &regular->each); /* times rows: data.count */
  if (packbuf_i_is_media_list(c) || packbuf_i_there(&c->validity) || !packbuf_i_computed(&c->offsets)) return 0;
  if (!packbuf_i_get64(&c->offsets, 0, &regular->base)) return 0;
  regular->each =
      c->offsets.storage == PACKBUF_SEQUENCE ? packbuf_i_load64(c->offsets.value + 8) : 0; /* a negative one is huge */
  return packbuf_i_mul(regular->each, c->node.rows, &end) && packbuf_i_add(end, regular->base, &end) &&
         end <= c->data.count;
}

/* Whether the cells of consecutive rows are one run of data (media list: of items). */
static int packbuf_i_joined_cells(const packbuf_column *c) {
  return c->node.codec != PACKBUF_CODEC_NDARRAY && !packbuf_i_there(&c->row_index) &&
         !packbuf_i_there(&c->prefix_length);
}

/* The elements of consecutive rows of joined cells. */
static packbuf_status packbuf_i_joined_run(const packbuf_i_picked *p, uint64_t row, uint64_t rows,
                                           packbuf_piece *piece) {
  const packbuf_column *c = &p->column;
  const int items = packbuf_i_is_media_list(c);
  const packbuf_buffer *offsets = items ? &c->item_offsets : &c->offsets;
  const uint64_t end = items ? c->offsets.count - 1 : c->data.count; /* a complete list has an offset */
  uint64_t from = 0, to = 0;
  if (!packbuf_i_get64(offsets, row, &from) || !packbuf_i_get64(offsets, row + rows, &to))
    return packbuf_i_broken_picked(p, PACKBUF_RULE_B13, packbuf_i_buffer_at(c->view, offsets->index), row);
  if (from > to || to > end)
    return packbuf_i_broken_picked(p, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, offsets, row + rows), row);
  piece->first = from;
  piece->count = to - from;
  return PACKBUF_OK;
}

/* Whether packbuf_i_quick_piece knows the cells: joined, one run of data each, with stored offsets. */
static int packbuf_i_quick_cells(const packbuf_column *c) {
  return packbuf_i_joined_cells(c) && !packbuf_i_is_media_list(c) && c->offsets.bytes != NULL &&
         !packbuf_i_there(&c->missing);
}

/* packbuf_cell_pieces for such cells, without a call. 0: ask it, for the error. A complete column has rows + 1 offsets.
 */
static int packbuf_i_quick_piece(const packbuf_column *c, uint64_t row, packbuf_piece *piece) {
  const uint8_t *offset = c->offsets.bytes + row * 8;
  uint64_t from, to;
  piece->first = piece->count = 0;
  if (packbuf_i_there(&c->validity) && !packbuf_i_get_bit(&c->validity, row)) return 1;
  from = packbuf_i_load64(offset);
  to = packbuf_i_load64(offset + 8);
  PACKBUF_I_FETCHED(from);
  PACKBUF_I_FETCHED(to);
  piece->first = from;
  piece->count = to - from;
  return from <= to && to <= c->data.count;
}

/* The pieces of any cell; quick: packbuf_i_quick_cells. */
static packbuf_status packbuf_i_picked_pieces(const packbuf_i_picked *p, int quick, uint64_t row,
                                              packbuf_piece pieces[2], unsigned *count) {
  *count = 1;
  if (quick && packbuf_i_quick_piece(&p->column, row, &pieces[0])) return PACKBUF_OK;
  return packbuf_cell_pieces(&p->column, row, pieces, count, p->error);
}

/* Takes a piece of a cell's data, or of a list's items; of joined cells one piece of all, from `row` on. */
typedef packbuf_status (*packbuf_i_take_piece)(const packbuf_i_picked *p, void *into, const packbuf_piece *piece,
                                               uint64_t row);

/* All pieces of a run of cells that are not regular, in the order of its rows. */
static packbuf_status packbuf_i_run_pieces(packbuf_i_picked *p, const packbuf_i_row_run *run, packbuf_i_take_piece take,
                                           void *into) {
  const int quick = packbuf_i_quick_cells(&p->column);
  packbuf_piece pieces[2];
  packbuf_status status;
  if (packbuf_i_consecutive(run) && packbuf_i_joined_cells(&p->column)) {
    status = packbuf_i_joined_run(p, run->first, run->count, &pieces[0]);
    return status == PACKBUF_OK ? take(p, into, &pieces[0], run->first) : status;
  }
  status = packbuf_i_may_ask(p, run->count);
  for (uint64_t k = 0; status == PACKBUF_OK && k < run->count; k++) {
    const uint64_t row = packbuf_i_run_row(run, k);
    unsigned count = 0;
    status = packbuf_i_picked_pieces(p, quick, row, pieces, &count);
    for (unsigned i = 0; status == PACKBUF_OK && i < count; i++) status = take(p, into, &pieces[i], row);
  }
  return status;
}

/* The bytes of `count` items of a media list from item `first` on. */
static packbuf_status packbuf_i_picked_items(const packbuf_i_picked *p, const packbuf_piece *items, uint64_t row,
                                             packbuf_piece *bytes) {
  const packbuf_column *c = &p->column;
  uint64_t from = 0, to = 0;
  if (!packbuf_i_get64(&c->offsets, items->first, &from) ||
      !packbuf_i_get64(&c->offsets, items->first + items->count, &to))
    return packbuf_i_broken_picked(p, PACKBUF_RULE_B13, packbuf_i_buffer_at(c->view, c->offsets.index), row);
  if (from > to || to > c->data.count)
    return packbuf_i_broken_picked(p, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, &c->offsets, items->first), row);
  bytes->first = from;
  bytes->count = to - from;
  return PACKBUF_OK;
}
