/* core/pieces.c: where a cell lies in its column's data: the stored row of a row, a prefix that is another row's, and
 * the public calls that answer with pieces, shapes and bytes. The rules I13 and I14, which only concern references
 * between rows.
 * May use: base, fetched, access, cells. Must not know: what the elements mean. */

/* The stored row of a present cell. */
static packbuf_status packbuf_i_stored_row(const packbuf_column *column, uint64_t row, uint64_t *stored,
                                           packbuf_error *error) {
  *stored = row;
  if (!packbuf_i_there(&column->row_index)) return PACKBUF_OK;
  if (packbuf_i_get64(&column->row_index, row, stored) && *stored < column->stored_rows) return PACKBUF_OK;
  return packbuf_i_broken_cell(column, PACKBUF_RULE_I13, packbuf_i_element_at(column->view, &column->row_index, row),
                               row, error);
}

/* The prefix that a present stored row has from its leader; count 0: none. */
static packbuf_status packbuf_i_prefix(const packbuf_column *column, uint64_t stored, packbuf_piece *prefix,
                                       packbuf_error *error) {
  uint64_t length = 0, leader = 0, second = 0, first = 0, count = 0;
  const packbuf_buffer *wrong = &column->prefix_row;
  packbuf_status status;
  prefix->first = prefix->count = 0;
  if (!packbuf_i_there(&column->prefix_length)) return PACKBUF_OK;
  if (packbuf_i_get64(&column->prefix_length, stored, &length) &&
      packbuf_i_get64(&column->prefix_row, stored, &leader)) {
    if (length == 0 && leader == 0) return PACKBUF_OK;
    if (length != 0 && leader < column->stored_rows && packbuf_i_get64(&column->prefix_length, leader, &second) &&
        second == 0) {
      status = packbuf_i_between(column, &column->offsets, leader, column->data.count, leader, &first, &count, error);
      if (status != PACKBUF_OK) return status;
      prefix->first = first;
      prefix->count = length;
      if (length <= count) return PACKBUF_OK;
      wrong = &column->prefix_length;
    }
  }
  return packbuf_i_broken_cell(column, PACKBUF_RULE_I14, packbuf_i_element_at(column->view, wrong, stored), stored,
                               error);
}

/* The pieces of a stored row, which is present where that matters. */
static packbuf_status packbuf_i_stored_pieces(const packbuf_column *column, uint64_t stored, packbuf_piece pieces[2],
                                              unsigned *count, packbuf_error *error) {
  packbuf_piece own;
  packbuf_status status = packbuf_i_cell_run(column, stored, &own.first, &own.count, error);
  *count = 0;
  if (status == PACKBUF_OK) status = packbuf_i_prefix(column, stored, &pieces[0], error);
  if (status != PACKBUF_OK) return status;
  *count = pieces[0].count != 0;
  if (own.count != 0) pieces[(*count)++] = own;
  return PACKBUF_OK;
}

/* Whether a cell has elements at all, and its stored row. */
static packbuf_status packbuf_i_place(const packbuf_column *column, uint64_t row, int *has, uint64_t *stored,
                                      packbuf_error *error) {
  const packbuf_node *node = &column->node;
  int state = 0;
  const packbuf_status status = packbuf_cell_state(column, row, &state, error);
  *has = 0;
  *stored = row;
  if (status != PACKBUF_OK || node->kind == PACKBUF_NODE_DICT ||
      (node->kind == PACKBUF_LEAF && node->codec == PACKBUF_CODEC_NULL))
    return status;
  if (state != 1 && (node->codec != PACKBUF_CODEC_NDARRAY || packbuf_i_there(&column->row_index))) return PACKBUF_OK;
  *has = 1;
  return packbuf_i_stored_row(column, row, stored, error);
}

PACKBUF_API packbuf_status packbuf_stored_row(const packbuf_column *column, uint64_t row, uint64_t *stored,
                                              packbuf_error *error) {
  int has = 0;
  const packbuf_status status = packbuf_i_place(column, row, &has, stored, error);
  if (status == PACKBUF_OK && !has && packbuf_i_there(&column->row_index)) *stored = UINT64_MAX;
  return status;
}

PACKBUF_API packbuf_status packbuf_cell_pieces(const packbuf_column *column, uint64_t row, packbuf_piece pieces[2],
                                               unsigned *count, packbuf_error *error) {
  uint64_t stored = 0;
  int has = 0;
  const packbuf_status status = packbuf_i_place(column, row, &has, &stored, error);
  *count = 0;
  if (status != PACKBUF_OK || !has) return status;
  return packbuf_i_stored_pieces(column, stored, pieces, count, error);
}

/* A cell that is in two pieces has no place of its own. */
static packbuf_status packbuf_i_two_pieces(const packbuf_column *column, uint64_t row, packbuf_error *error) {
  return packbuf_i_fail_node(column->view, column->node.index, PACKBUF_NOT_STORED,
                             "the cell shares a prefix with another and lies in two pieces: packbuf_cell_pieces, or "
                             "copy it out with packbuf_select_copy",
                             row, error);
}

PACKBUF_API packbuf_status packbuf_cell_extent(const packbuf_column *column, uint64_t row, uint64_t *first,
                                               uint64_t *count, packbuf_error *error) {
  packbuf_piece prefix;
  uint64_t stored = 0;
  int has = 0;
  packbuf_status status = packbuf_i_place(column, row, &has, &stored, error);
  *first = *count = 0;
  if (status != PACKBUF_OK || !has) return status;
  status = packbuf_i_cell_run(column, stored, first, count, error);
  if (status == PACKBUF_OK) status = packbuf_i_prefix(column, stored, &prefix, error);
  if (status != PACKBUF_OK || prefix.count == 0) return status;
  if (*count != 0) return packbuf_i_two_pieces(column, row, error);
  *first = prefix.first;
  *count = prefix.count;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_cell_shape(const packbuf_column *column, uint64_t row, unsigned *rank,
                                              uint64_t *shape, packbuf_error *error) {
  const packbuf_node *node = &column->node;
  packbuf_piece pieces[2];
  unsigned count = 0;
  uint64_t stored = 0, elements = 0;
  int has = 0;
  packbuf_status status = packbuf_i_place(column, row, &has, &stored, error);
  if (status != PACKBUF_OK) return status;
  if (node->kind != PACKBUF_LEAF || !packbuf_i_numeric(node->codec))
    return packbuf_i_fail_node(column->view, node->index, PACKBUF_WRONG_TYPE, "not a column of numbers", row, error);
  memset(shape, 0, PACKBUF_MAX_RANK * sizeof *shape);
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    *rank = node->rank;
    memcpy(shape, node->shape, node->rank * sizeof *shape);
    return PACKBUF_OK;
  }
  *rank = 0;
  if (!has) return PACKBUF_OK;
  status = packbuf_i_stored_pieces(column, stored, pieces, &count, error);
  for (unsigned i = 0; i < count; i++) elements += pieces[i].count;
  return status != PACKBUF_OK ? status : packbuf_i_ragged_shape(column, stored, elements, rank, shape, error);
}

PACKBUF_API packbuf_status packbuf_cell_bytes(const packbuf_column *column, uint64_t row, const void **bytes,
                                              uint64_t *size, packbuf_error *error) {
  const packbuf_node *node = &column->node;
  const uint32_t element = packbuf_i_element_bits(column->data.dtype) / 8;
  uint64_t first = 0, count = 0;
  int state = 0;
  packbuf_status status = packbuf_cell_state(column, row, &state, error);
  if (status != PACKBUF_OK) return status;
  if (node->kind != PACKBUF_LEAF || node->codec == PACKBUF_CODEC_NULL || node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    return packbuf_i_fail_node(column->view, node->index, PACKBUF_WRONG_TYPE,
                               "cells of this column are not one run of bytes", row, error);
  *bytes = NULL;
  *size = 0;
  if (state != 1) return PACKBUF_OK;
  status = packbuf_cell_extent(column, row, &first, &count, error);
  if (status != PACKBUF_OK) return status;
  if (packbuf_i_computed(&column->data))
    return packbuf_i_fail_node(
        column->view, node->index, PACKBUF_NOT_STORED,
        "the elements are computed (constant or sequence): copy rows out with packbuf_select_copy", row, error);
  if (column->data.headers)
    return packbuf_i_fail_node(column->view, node->index, PACKBUF_NOT_STORED,
                               "the elements are packed: copy rows out with packbuf_select_copy", row, error);
  *size = count * element;
  *bytes = packbuf_i_in_place(&column->data, first * element, *size);
  if (*bytes != NULL) return PACKBUF_OK;
  if (packbuf_i_not_fetched_at(column->view, column->data.offset + first * element, *size) !=
      column->data.offset + first * element + *size)
    return packbuf_i_not_fetched(&column->data, first * element, *size, row, error);
  return packbuf_i_fail_node(column->view, node->index, PACKBUF_NOT_STORED,
                             "the cell was fetched in two ranges: copy it out with packbuf_select_copy", row, error);
}

/* ---- verification ---- */

/* The column as its codec sees it: of a leaf that shares rows the stored rows, all present. */
static const packbuf_column *packbuf_i_stored_column(const packbuf_column *column, packbuf_column *stored) {
  if (!packbuf_i_there(&column->row_index)) return column;
  *stored = *column;
  stored->node.rows = column->stored_rows;
  memset(&stored->validity, 0, sizeof stored->validity);
  memset(&stored->missing, 0, sizeof stored->missing);
  return stored;
}

/* I13. Without stored bytes the first rows and the last decide: a sequence is largest at one of its ends. */
static packbuf_status packbuf_i_verify_row_index(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[2];
  uint64_t rows, index = 0;
  if (!packbuf_i_there(&c->row_index) || !packbuf_i_readable(&c->row_index) || !packbuf_i_readable(&c->validity))
    return PACKBUF_OK;
  with[0] = &c->row_index, with[1] = &c->validity;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 2);
  for (uint64_t i = 0; i < rows; i++) {
    const uint64_t row = i + 1 == rows ? c->node.rows - 1 : i;
    if (!packbuf_i_get64(&c->row_index, row, &index) ||
        (packbuf_i_present(c, row) ? index >= c->stored_rows : index != 0))
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I13, packbuf_i_element_at(c->view, &c->row_index, row), row, error);
  }
  return PACKBUF_OK;
}

/* I14 of a leaf's stored rows (packbuf_i_stored_column). Without stored bytes the first rows and the last decide: more
 * than one row without a prefix makes all lengths 0, so no two rows have different leaders, and lengths grow towards
 * one of the ends. */
static packbuf_status packbuf_i_verify_prefixes(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[4];
  packbuf_piece prefix;
  uint64_t rows, length = 0;
  if (!packbuf_i_there(&c->prefix_row) || !packbuf_i_readable(&c->prefix_row) ||
      !packbuf_i_readable(&c->prefix_length) || !packbuf_i_readable(&c->validity) || !packbuf_i_readable(&c->offsets))
    return PACKBUF_OK;
  with[0] = &c->prefix_row, with[1] = &c->prefix_length, with[2] = &c->validity, with[3] = &c->offsets;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 4);
  for (uint64_t i = 0; i < rows; i++) {
    const uint64_t row = i + 1 == rows ? c->node.rows - 1 : i;
    packbuf_status status;
    if (!packbuf_i_present(c, row) && packbuf_i_get64(&c->prefix_length, row, &length) && length != 0)
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I14, packbuf_i_element_at(c->view, &c->prefix_length, row), row,
                                   error);
    status = packbuf_i_prefix(c, row, &prefix, error);
    if (status != PACKBUF_OK) return status;
  }
  return PACKBUF_OK;
}
