/* core/read.c: reconstruction: cells, columns, rows and batch values as dynamic values in the caller's arena. Columns
 * are read whole into slots (a value every `step` bytes), so that children fill the entries of their parents' dicts in
 * place, and what does not depend on the row is done once. limits.decoded_bytes bounds what one call takes from the
 * arena.
 * May use: base, arena, value, access, cells, leaf; the codecs' reading halves. Must not know: how a leaf's cells
 * lie. */

/* Where values go: one every `step` bytes. */
typedef struct packbuf_i_slots {
  void *first;
  size_t step;
} packbuf_i_slots;

static packbuf_value *packbuf_i_slot(packbuf_i_slots slots, uint64_t i) {
  void *at = (unsigned char *)slots.first + (size_t)i * slots.step;
  return (packbuf_value *)at;
}

/* How many rows from `row` on, up to the next multiple of 64 and at most `count`, are absent one and all: they are put
 * down together. */
static uint64_t packbuf_i_read_absent(const packbuf_column *column, uint64_t row, uint64_t count, packbuf_i_slots out) {
  const packbuf_value absent[2] = {packbuf_null(), packbuf_missing()};
  uint64_t rows = 64 - row % 64, present, missing;
  if (!packbuf_i_there(&column->validity) || row >= column->node.rows) return 0;
  if (rows > count) rows = count;
  if (rows > column->node.rows - row) return 0;
  present = packbuf_i_get_bits(&column->validity, row / 64) >> row % 64;
  if (present && packbuf_i_first_set(present) < rows) rows = packbuf_i_first_set(present);
  missing = packbuf_i_there(&column->missing) ? packbuf_i_get_bits(&column->missing, row / 64) >> row % 64 : 0;
  for (uint64_t i = 0; i < rows; i++)
    *packbuf_i_slot(out, i) = absent[missing >> i & 1];
  return rows;
}

static packbuf_status packbuf_i_read_leaf(packbuf_i_reader *r, packbuf_column *column, uint64_t first, uint64_t count,
                                          packbuf_i_slots out) {
  packbuf_i_unit_windows windows;
  const packbuf_i_codec_reader *codec = packbuf_i_codec_reader_of(column->node.codec);
  packbuf_i_leaf_cells cells;
  packbuf_status status;
  int look = 1, state = 0; /* look: whether rows that are absent may begin here */
  packbuf_i_open_windows(column, &windows);
  if (r->selection && r->selection->flags[column->node.index] != PACKBUF_I_CHOSEN)
    return packbuf_i_fail_node(r->view, column->node.index, PACKBUF_WRONG_TYPE,
                               "an attribute was chosen without its media: it can only be read as a column",
                               PACKBUF_NOWHERE, r->error);
  cells.reader = r;
  cells.column = column;
  cells.left = count;
  cells.attributes = 0;
  memset(cells.bulk, 0, sizeof cells.bulk);
  status = codec->begin ? codec->begin(&cells) : PACKBUF_OK;
  for (uint64_t i = 0; status == PACKBUF_OK && i < count; i++, cells.left--) {
    packbuf_value *value = packbuf_i_slot(out, i);
    const uint64_t row = packbuf_i_reader_row(r, first + i);
    if ((look || row % 64 == 0) && !r->selection) {
      packbuf_i_slots rest;
      uint64_t absent;
      rest.first = value;
      rest.step = out.step;
      absent = packbuf_i_read_absent(column, row, count - i, rest);
      if (absent) {
        i += absent - 1;
        cells.left -= absent - 1;
        look = 0;
        continue;
      }
    }
    status = packbuf_cell_state(column, row, &state, r->error);
    if (status != PACKBUF_OK) break;
    look = state != 1;
    if (state == 1) {
      uint64_t stored = 0;
      cells.row = row;
      status = packbuf_i_stored_row(column, cells.row, &stored, r->error);
      if (status == PACKBUF_OK) status = codec->read(&cells, stored, value);
    } else *value = state == 0 ? packbuf_null() : packbuf_missing();
  }
  return status;
}

static packbuf_status packbuf_i_read_node(packbuf_i_reader *r, uint32_t index, uint64_t end, uint64_t first,
                                          uint64_t count, packbuf_i_slots out, unsigned depth);

/* The kind, while a list is read, of an item that the selection leaves out. */
#define PACKBUF_I_NOT_CHOSEN 0xFF

/* How many children a dict or list gets: a list keeps the places of items that were not chosen. */
static uint64_t packbuf_i_count_wanted(const packbuf_i_reader *r, uint64_t begin, uint64_t end, int is_list) {
  uint64_t count = 0;
  packbuf_i_node_record node;
  if (is_list || !r->selection) return packbuf_i_count_siblings(r->view, begin, end);
  for (; begin < end && packbuf_i_fetch_node(r->view, (uint32_t)begin, &node); begin += 1 + (uint64_t)node.descendants)
    count += (uint64_t)packbuf_i_reader_wants(r, begin);
  return count;
}

/* Reads the children of `parent` from `begin` on into the values of `width` entries (keys: their names) or items a row.
 * Each is held within its parent's subtree (N2), which nobody may have checked: no node is then walked twice at one
 * depth. */
static packbuf_status packbuf_i_read_siblings(packbuf_i_reader *r, uint32_t parent, uint64_t begin, uint64_t end,
                                              uint64_t width, uint64_t first, uint64_t count, packbuf_entry *entries,
                                              packbuf_value *items, unsigned depth) {
  uint64_t child = begin;
  for (uint64_t k = 0; k < width;) {
    packbuf_i_slots slots;
    packbuf_node node;
    packbuf_status status =
        child < end ? packbuf_get_node(r->view, (uint32_t)child, &node, r->error)
                    : packbuf_i_broken(r->error, PACKBUF_RULE_N2, packbuf_i_node_at(r->view, (uint32_t)begin) + 4,
                                       PACKBUF_NOWHERE); /* it was there when they were counted */
    if (status != PACKBUF_OK) return status;
    if (node.parent != parent || node.descendants >= end - child)
      return packbuf_i_broken_node(r->error, r->view, PACKBUF_RULE_N2,
                                   packbuf_i_node_at(r->view, (uint32_t)child) + (node.parent != parent ? 0 : 4),
                                   (uint32_t)child, PACKBUF_NOWHERE);
    slots.first = entries ? &entries[k].value : &items[k];
    slots.step = (size_t)width * (entries ? sizeof *entries : sizeof *items);
    if (packbuf_i_reader_wants(r, child)) {
      status = packbuf_i_read_node(r, (uint32_t)child, child + 1 + node.descendants, first, count, slots, depth + 1);
      if (status != PACKBUF_OK) return status;
      for (uint64_t i = 0; entries && i < count; i++)
        entries[i * width + k].key = packbuf_string_n(node.name.data, node.name.size);
      k++;
    } else if (items) {
      for (uint64_t i = 0; i < count; i++) packbuf_i_slot(slots, i)->kind = PACKBUF_I_NOT_CHOSEN;
      k++;
    }
    child += 1 + (uint64_t)node.descendants;
  }
  return PACKBUF_OK;
}

/* Dicts of the siblings from begin to end; missing ones are left out. self: the dict node with its masks; NULL for the
 * batch itself. */
static packbuf_status packbuf_i_read_dicts(packbuf_i_reader *r, const packbuf_column *self, uint64_t begin,
                                           uint64_t end, uint64_t first, uint64_t count, packbuf_i_slots out,
                                           unsigned depth) {
  const uint64_t width = packbuf_i_count_wanted(r, begin, end, 0);
  uint64_t cells;
  packbuf_entry *entries = NULL;
  packbuf_status status = PACKBUF_OK;
  if (!packbuf_i_mul(width, count, &cells)) return packbuf_i_no_room(r, UINT64_MAX);
  if (cells) {
    void *memory;
    status = packbuf_i_take(r, cells, sizeof *entries, 8, &memory);
    if (status != PACKBUF_OK) return status;
    entries = (packbuf_entry *)memory;
    status = packbuf_i_read_siblings(r, self ? self->node.index : PACKBUF_NO_NODE, begin, end, width, first, count,
                                     entries, NULL, depth);
  }
  for (uint64_t i = 0; status == PACKBUF_OK && i < count; i++) {
    packbuf_entry *row = cells ? entries + i * width : NULL;
    size_t kept = 0;
    int state = 1;
    if (self) status = packbuf_cell_state(self, packbuf_i_reader_row(r, first + i), &state, r->error);
    if (status != PACKBUF_OK) break;
    for (uint64_t k = 0; state == 1 && k < width; k++) {
      if (row[k].value.kind == PACKBUF_MISSING) continue;
      if (kept != k) row[kept] = row[k];
      kept++;
    }
    *packbuf_i_slot(out, i) = state == 1 ? packbuf_dict(row, kept) : state == 0 ? packbuf_null() : packbuf_missing();
  }
  return status;
}

/* One row of a list: its length decides which items there are. */
static packbuf_status packbuf_i_read_list(packbuf_i_reader *r, const packbuf_column *self, uint64_t row,
                                          packbuf_value *items, uint64_t width, packbuf_value *value) {
  uint64_t length, ignored;
  int state = 0;
  packbuf_status status = packbuf_cell_state(self, row, &state, r->error);
  if (status != PACKBUF_OK) return status;
  *value = state == 0 ? packbuf_null() : packbuf_missing();
  if (state != 1) return PACKBUF_OK;
  status = packbuf_i_cell_run(self, row, &ignored, &length, r->error);
  if (status != PACKBUF_OK) return status;
  if (length > width)
    return packbuf_i_broken_cell(self, PACKBUF_RULE_I9, packbuf_i_element_at(r->view, &self->lengths, row), row,
                                 r->error);
  for (uint64_t k = 0; k < width; k++) {
    if (items[k].kind == PACKBUF_I_NOT_CHOSEN) items[k] = packbuf_missing();
    else if ((items[k].kind == PACKBUF_MISSING) != (k >= length))
      return packbuf_i_broken_cell(self, PACKBUF_RULE_I6, packbuf_i_node_at(r->view, self->node.index), row, r->error);
  }
  *value = packbuf_list(length ? items : NULL, (size_t)length);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_read_lists(packbuf_i_reader *r, const packbuf_column *self, uint64_t first,
                                           uint64_t count, packbuf_i_slots out, unsigned depth) {
  const uint64_t begin = (uint64_t)self->node.index + 1, end = begin + self->node.descendants,
                 width = packbuf_i_count_wanted(r, begin, end, 1);
  uint64_t cells;
  packbuf_value *items = NULL;
  packbuf_status status = PACKBUF_OK;
  if (!packbuf_i_mul(width, count, &cells)) return packbuf_i_no_room(r, UINT64_MAX);
  if (cells) {
    void *memory;
    status = packbuf_i_take(r, cells, sizeof *items, 8, &memory);
    if (status != PACKBUF_OK) return status;
    items = (packbuf_value *)memory;
    status = packbuf_i_read_siblings(r, self->node.index, begin, end, width, first, count, NULL, items, depth);
  }
  for (uint64_t i = 0; status == PACKBUF_OK && i < count; i++)
    status = packbuf_i_read_list(r, self, packbuf_i_reader_row(r, first + i), cells ? items + i * width : NULL, width,
                                 packbuf_i_slot(out, i));
  return status;
}

/* Any node whose subtree ends by `end`. The depth is bounded here too: the bytes may have changed since they were
 * opened. */
static packbuf_status packbuf_i_read_node(packbuf_i_reader *r, uint32_t index, uint64_t end, uint64_t first,
                                          uint64_t count, packbuf_i_slots out, unsigned depth) {
  packbuf_column column;
  packbuf_status status = packbuf_open_column(r->view, index, &column, r->error);
  if (status != PACKBUF_OK) return status;
  if (depth > PACKBUF_I_DEPTH_CAP || depth > r->view->limits.depth)
    return packbuf_i_broken_node(r->error, r->view, PACKBUF_RULE_N3, packbuf_i_node_at(r->view, index), index,
                                 PACKBUF_NOWHERE);
  if (column.node.descendants >= end - index)
    return packbuf_i_broken_node(r->error, r->view, PACKBUF_RULE_N2, packbuf_i_node_at(r->view, index) + 4, index,
                                 PACKBUF_NOWHERE);
  if (r->selection == NULL && (first > column.node.rows || count > column.node.rows - first))
    return packbuf_i_fail_node(r->view, index, PACKBUF_OUT_OF_RANGE, "the column has fewer rows", first, r->error);
  if (column.node.kind == PACKBUF_NODE_LIST) return packbuf_i_read_lists(r, &column, first, count, out, depth);
  if (column.node.kind == PACKBUF_NODE_DICT)
    return packbuf_i_read_dicts(r, &column, (uint64_t)index + 1, (uint64_t)index + 1 + column.node.descendants, first,
                                count, out, depth);
  return packbuf_i_read_leaf(r, &column, first, count, out);
}

/* While reading, the arena gives no more than decoded_bytes. */
static packbuf_i_reader packbuf_i_begin_read(const packbuf_view *view, packbuf_arena *arena, packbuf_error *error) {
  packbuf_i_reader r;
  r.view = view;
  r.arena = arena;
  r.error = error;
  r.selection = NULL;
  r.arena_limit = arena->limit;
  r.to_check = view->limits.decoded_bytes;
  if (view->limits.decoded_bytes < UINT64_MAX - arena->used && arena->used + view->limits.decoded_bytes < arena->limit)
    arena->limit = arena->used + view->limits.decoded_bytes;
  return r;
}

static packbuf_status packbuf_i_end_read(packbuf_i_reader *r, packbuf_status status) {
  r->arena->limit = r->arena_limit;
  return status;
}

PACKBUF_API packbuf_status packbuf_read_column(const packbuf_view *view, uint32_t node, uint64_t first, uint64_t count,
                                               packbuf_arena *arena, packbuf_value *values, packbuf_error *error) {
  packbuf_i_reader r = packbuf_i_begin_read(view, arena, error);
  packbuf_i_slots out;
  out.first = values;
  out.step = sizeof *values;
  return packbuf_i_end_read(&r, packbuf_i_read_node(&r, node, view->node_count, first, count, out, 1));
}

PACKBUF_API packbuf_status packbuf_read_cell(const packbuf_view *view, uint32_t node, uint64_t row,
                                             packbuf_arena *arena, packbuf_value *value, packbuf_error *error) {
  return packbuf_read_column(view, node, row, 1, arena, value, error);
}

PACKBUF_API packbuf_status packbuf_read_rows(const packbuf_view *view, uint64_t first, uint64_t count,
                                             packbuf_arena *arena, packbuf_value *rows, packbuf_error *error) {
  packbuf_i_reader r = packbuf_i_begin_read(view, arena, error);
  packbuf_i_slots out;
  out.first = rows;
  out.step = sizeof *rows;
  if (first > view->rows || count > view->rows - first)
    return packbuf_i_end_read(
        &r, packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "the batch has fewer rows", PACKBUF_NOWHERE, first));
  return packbuf_i_end_read(&r, packbuf_i_read_dicts(&r, NULL, 0, packbuf_i_fields_end(view), first, count, out, 0));
}

PACKBUF_API packbuf_status packbuf_read_row(const packbuf_view *view, uint64_t row, packbuf_arena *arena,
                                            packbuf_value *value, packbuf_error *error) {
  return packbuf_read_rows(view, row, 1, arena, value, error);
}

PACKBUF_API packbuf_status packbuf_read_batch_values(const packbuf_view *view, packbuf_arena *arena,
                                                     packbuf_value *value, packbuf_error *error) {
  packbuf_i_reader r = packbuf_i_begin_read(view, arena, error);
  packbuf_i_slots out;
  out.first = value;
  out.step = sizeof *value;
  return packbuf_i_end_read(&r,
                            packbuf_i_read_dicts(&r, NULL, packbuf_i_fields_end(view), view->node_count, 0, 1, out, 0));
}
