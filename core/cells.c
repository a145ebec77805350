/* core/cells.c: a column ready to be read cell by cell: its buffers, the state of a row, the extent and shape of a
 * stored row, each checked when it is read.
 * May use: base, access, tables (what is known), number, value. Must not know: which row a stored row stands for, how
 * cells become values, how a batch is written. */

static packbuf_status packbuf_i_broken_cell(const packbuf_column *column, packbuf_rule rule, uint64_t at, uint64_t row,
                                            packbuf_error *error) {
  return packbuf_i_broken_node(error, column->view, rule, at, column->node.index, row);
}

static packbuf_status packbuf_i_fail_node(const packbuf_view *view, uint32_t node, packbuf_status code,
                                          const char *message, uint64_t row, packbuf_error *error) {
  packbuf_i_fail(error, code, message, PACKBUF_NOWHERE, row);
  if (error) packbuf_node_path(view, node, error->path, sizeof error->path);
  return code;
}

static int packbuf_i_there(const packbuf_buffer *buffer) { return buffer->storage != 0; }
/* Absent buffers are readable too: there is nothing to read. */
static int packbuf_i_readable(const packbuf_buffer *buffer) { return buffer->packing <= 1; }

/* Where a buffer of a role is kept; NULL for a role that this reader does not know. */
static packbuf_buffer *packbuf_i_role_slot(packbuf_column *column, unsigned role, unsigned dim) {
  switch (role) {
    case PACKBUF_ROLE_DATA: return &column->data;
    case PACKBUF_ROLE_OFFSETS: return &column->offsets;
    case PACKBUF_ROLE_LENGTHS: return &column->lengths;
    case PACKBUF_ROLE_SHAPE: return dim < PACKBUF_MAX_RANK ? &column->shape[dim] : NULL;
    case PACKBUF_ROLE_NDIMS: return &column->ndims;
    case PACKBUF_ROLE_VALIDITY: return &column->validity;
    case PACKBUF_ROLE_MISSING: return &column->missing;
    case PACKBUF_ROLE_TYPES: return &column->types;
    case PACKBUF_ROLE_ITEM_OFFSETS: return &column->item_offsets;
    case PACKBUF_ROLE_ROW_INDEX: return &column->row_index;
    case PACKBUF_ROLE_PREFIX_ROW: return &column->prefix_row;
    case PACKBUF_ROLE_PREFIX_LENGTH: return &column->prefix_length;
    default: return NULL;
  }
}

/* Loads node and buffers. *unreadable: PACKBUF_OK, or why the column as a whole cannot be read; single buffers of it
 * may be readable then. */
static packbuf_status packbuf_i_load_column(const packbuf_view *view, uint32_t index, packbuf_column *column,
                                            packbuf_status *unreadable, packbuf_error *error) {
  int unknown_role = 0, packed = 0, before = -1;
  packbuf_status status;
  memset(column, 0, sizeof *column);
  column->view = view;
  status = packbuf_get_node(view, index, &column->node, error);
  for (uint32_t i = 0; status == PACKBUF_OK && i < column->node.buffer_count; i++) {
    packbuf_buffer buffer, *slot;
    status = packbuf_get_buffer_at(view, column->node.first_buffer + i, &buffer, error);
    if (status != PACKBUF_OK) break;
    if (buffer.node != index || buffer.role * 256 + buffer.dim <= before)
      return packbuf_i_broken_cell(column, PACKBUF_RULE_B1,
                                   packbuf_i_buffer_at(view, buffer.index) + (buffer.node != index ? 0 : 4),
                                   PACKBUF_NOWHERE, error);
    before = buffer.role * 256 + buffer.dim;
    slot = packbuf_i_role_slot(column, buffer.role, buffer.dim);
    if (slot) *slot = buffer;
    else unknown_role = 1;
    if (buffer.partial && slot && slot != &column->data) /* what says where data lie is of the index */
      return packbuf_i_broken_cell(column, PACKBUF_RULE_B11, packbuf_i_buffer_at(view, buffer.index) + 24,
                                   PACKBUF_NOWHERE, error);
    if (buffer.packing > 1) packed = 1;
    if (buffer.headers && slot == &column->data && column->node.codec >= PACKBUF_CODEC_BYTES_RAGGED &&
        column->node.codec <= PACKBUF_I_LAST_CODEC)
      return packbuf_i_broken_cell(column, PACKBUF_RULE_B14, packbuf_i_buffer_at(view, buffer.index) + 7,
                                   PACKBUF_NOWHERE, error);
    if ((slot == &column->validity || slot == &column->missing) && buffer.count != column->node.rows)
      status = packbuf_i_broken_cell(column, PACKBUF_RULE_B13, packbuf_i_buffer_at(view, buffer.index), PACKBUF_NOWHERE,
                                     error);
    else if (slot &&
             !packbuf_i_dtype_equal(buffer.dtype, buffer.role == PACKBUF_ROLE_DATA ? column->node.dtype
                                                                                   : packbuf_i_role_dtype(buffer.role)))
      status = packbuf_i_broken_cell(column, PACKBUF_RULE_B3, packbuf_i_buffer_at(view, buffer.index) + 8,
                                     PACKBUF_NOWHERE, error);
  }
  if (status != PACKBUF_OK) return status;
  *unreadable = PACKBUF_OK;
  if (column->node.kind == PACKBUF_LEAF && !packbuf_i_known_codec(column->node.codec))
    *unreadable = PACKBUF_UNSUPPORTED_CODEC;
  else if (column->node.kind == PACKBUF_LEAF && unknown_role) *unreadable = PACKBUF_UNSUPPORTED_ROLE;
  else if (packed) *unreadable = PACKBUF_UNSUPPORTED_PACKING;
  else if (column->node.kind == PACKBUF_LEAF && column->node.codec != PACKBUF_CODEC_NULL &&
           !packbuf_i_dtype_known(column->node.dtype))
    *unreadable = PACKBUF_UNSUPPORTED_DTYPE;
  return PACKBUF_OK;
}

/* Whether a buffer is absent or has so many elements. */
static int packbuf_i_counts(const packbuf_buffer *buffer, uint64_t elements) {
  return !packbuf_i_there(buffer) || buffer->count == elements;
}

/* How many rows a leaf that has all its buffers stores; 0 when what tells it cannot be. */
static int packbuf_i_count_stored(packbuf_column *column) {
  const packbuf_node *node = &column->node;
  const packbuf_buffer *offsets =
      node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED ? &column->item_offsets : &column->offsets;
  column->stored_rows = node->rows;
  if (!packbuf_i_there(&column->row_index)) return 1;
  if (column->row_index.count != node->rows) return 0;
  if (node->codec == PACKBUF_CODEC_NDARRAY)
    return packbuf_i_array_rows(node->shape, node->rank, column->data.count, node->rows, &column->stored_rows);
  column->stored_rows = offsets->count - 1;
  return offsets->count != 0 && column->stored_rows <= node->rows;
}

/* The counts that B13 demands of a leaf that has all its buffers. rows + 1 cannot overflow: rows is at most 2^63. */
static int packbuf_i_leaf_counts(packbuf_column *column) {
  const packbuf_node *node = &column->node;
  const int items = node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  uint64_t rows, elements, each = 1;
  if (!packbuf_i_count_stored(column)) return 0;
  rows = elements = column->stored_rows;
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    (void)packbuf_i_product(node->shape, node->rank, &each);
    if (!packbuf_i_mul(elements, each, &elements) || column->data.count != elements) return 0;
  }
  for (unsigned d = 0; d < PACKBUF_MAX_RANK; d++) {
    if (!packbuf_i_counts(&column->shape[d], rows)) return 0;
  }
  if (packbuf_i_there(&column->prefix_row) != packbuf_i_there(&column->prefix_length)) return 0;
  if (packbuf_i_there(&column->prefix_row) &&
      (node->rank != 1 || packbuf_i_there(&column->ndims) || packbuf_i_there(&column->types) ||
       !packbuf_i_ragged_numbers(node->codec)))
    return 0;
  return packbuf_i_counts(items ? &column->item_offsets : &column->offsets, rows + 1) &&
         packbuf_i_counts(&column->ndims, rows) && packbuf_i_counts(&column->prefix_row, rows) &&
         packbuf_i_counts(&column->prefix_length, rows) &&
         packbuf_i_counts(&column->types, items ? column->offsets.count - 1 : rows);
}

/* Whether the buffers that reading relies on are there and as long as the rows demand: B13 again, since the bytes may
 * have changed since they were checked. Sets stored_rows. */
static int packbuf_i_complete(packbuf_column *column) {
  const packbuf_node *node = &column->node;
  column->stored_rows = node->rows;
  if (node->kind == PACKBUF_NODE_LIST) return packbuf_i_there(&column->lengths) && column->lengths.count == node->rows;
  if (node->kind != PACKBUF_LEAF || node->codec == PACKBUF_CODEC_NULL) return 1;
  if (!packbuf_i_there(&column->data)) return 0;
  if (node->codec >= PACKBUF_CODEC_BYTES_RAGGED && packbuf_i_element_bits(node->dtype) != 8) return 0;
  if (node->codec != PACKBUF_CODEC_NDARRAY && !packbuf_i_there(&column->offsets)) return 0;
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED &&
      (!packbuf_i_there(&column->item_offsets) || column->offsets.count == 0))
    return 0;
  if (packbuf_i_ragged_numbers(node->codec)) {
    for (unsigned d = 0; node->rank >= 2 && d < node->rank; d++) {
      if (!packbuf_i_there(&column->shape[d])) return 0;
    }
  }
  return packbuf_i_leaf_counts(column);
}

/* Windows for the buffers of a column that is read from its first rows to its last. */
typedef struct packbuf_i_unit_windows {
  packbuf_i_unit_window of[9];
} packbuf_i_unit_windows;

/* Gives the packed buffers of the index windows, which must stay as long as the column is used, by one thread. */
static void packbuf_i_open_windows(packbuf_column *column, packbuf_i_unit_windows *windows) {
  packbuf_buffer *const buffers[9] = {&column->offsets,       &column->row_index, &column->prefix_row,
                                      &column->prefix_length, &column->validity,  &column->lengths,
                                      &column->shape[0],      &column->shape[1],  &column->missing};
  for (unsigned i = 0; i < 9; i++) {
    windows->of[i].first = windows->of[i].count = 0;
    if (buffers[i]->headers) buffers[i]->window = &windows->of[i];
  }
}

/* A packed mask whose blocks are broken would say that cells are absent: it is looked at whole. */
static packbuf_status packbuf_i_check_mask(const packbuf_buffer *mask, packbuf_error *error) {
  const uint64_t blocks = packbuf_block_count(mask), bytes = packbuf_i_unit_count(mask->dtype, mask->count);
  packbuf_i_packed packed;
  for (uint64_t k = 0; k < blocks; k++)
    if (!packbuf_i_find_block(mask, k, &packed) || !packed.payload ||
        !packbuf_i_block_whole(&packed.block, packed.payload, packed.size, packed.bits, packed.units))
      return packbuf_i_not_fetched(mask, 0, bytes, PACKBUF_NOWHERE, error);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_open_column(const packbuf_view *view, uint32_t node, packbuf_column *column,
                                               packbuf_error *error) {
  packbuf_status unreadable, status = packbuf_i_load_column(view, node, column, &unreadable, error);
  if (status != PACKBUF_OK) return status;
  if (unreadable != PACKBUF_OK)
    return packbuf_i_fail_node(view, node, unreadable, packbuf_status_text(unreadable), PACKBUF_NOWHERE, error);
  if (!packbuf_i_complete(column))
    return packbuf_i_broken_cell(column, PACKBUF_RULE_B13, packbuf_i_node_at(view, node) + 16, PACKBUF_NOWHERE, error);
  status = packbuf_i_check_mask(&column->validity, error);
  return status != PACKBUF_OK ? status : packbuf_i_check_mask(&column->missing, error);
}

PACKBUF_API packbuf_status packbuf_cell_state(const packbuf_column *column, uint64_t row, int *state,
                                              packbuf_error *error) {
  int valid = !(column->node.kind == PACKBUF_LEAF && column->node.codec == PACKBUF_CODEC_NULL), missing = 0;
  if (PACKBUF_I_UNLIKELY(row >= column->node.rows))
    return packbuf_i_fail_node(column->view, column->node.index, PACKBUF_OUT_OF_RANGE, "the column has fewer rows", row,
                               error);
  if (packbuf_i_there(&column->validity)) valid = packbuf_i_get_bit(&column->validity, row);
  if (packbuf_i_there(&column->missing)) missing = packbuf_i_get_bit(&column->missing, row);
  if (PACKBUF_I_UNLIKELY(valid && missing))
    return packbuf_i_broken_cell(column, PACKBUF_RULE_I4, packbuf_i_buffer_at(column->view, column->missing.index), row,
                                 error);
  *state = valid ? 1 : missing ? -1 : 0;
  return PACKBUF_OK;
}

/* Elements offsets[i] to offsets[i + 1] of `end`. */
static packbuf_status packbuf_i_between(const packbuf_column *column, const packbuf_buffer *offsets, uint64_t i,
                                        uint64_t end, uint64_t row, uint64_t *first, uint64_t *count,
                                        packbuf_error *error) {
  uint64_t from, to;
  if (PACKBUF_I_UNLIKELY(i == UINT64_MAX || !packbuf_i_get64(offsets, i, &from) ||
                         !packbuf_i_get64(offsets, i + 1, &to))) {
    if (i < offsets->count && i + 1 < offsets->count && offsets->headers)
      return packbuf_i_not_fetched(offsets, i * 8, 16, row, error);
    return packbuf_i_broken_cell(column, PACKBUF_RULE_B13, packbuf_i_buffer_at(column->view, offsets->index), row,
                                 error);
  }
  if (PACKBUF_I_UNLIKELY(from > to || to > end))
    return packbuf_i_broken_cell(column, PACKBUF_RULE_I7,
                                 packbuf_i_element_at(column->view, offsets, i + (from <= end)), row, error);
  *first = from;
  *count = to - from;
  return PACKBUF_OK;
}

/* The extent of a stored row that is present; in an ndarray and a list node, of any. */
static packbuf_status packbuf_i_cell_run(const packbuf_column *column, uint64_t row, uint64_t *first, uint64_t *count,
                                         packbuf_error *error) {
  const packbuf_node *node = &column->node;
  *first = 0;
  if (node->kind == PACKBUF_NODE_LIST) {
    if (packbuf_i_get64(&column->lengths, row, count)) return PACKBUF_OK;
    if (row < column->lengths.count && column->lengths.headers)
      return packbuf_i_not_fetched(&column->lengths, row * 8, 8, row, error);
    return packbuf_i_broken_cell(column, PACKBUF_RULE_B13, packbuf_i_buffer_at(column->view, column->lengths.index),
                                 row, error);
  }
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    uint64_t end;
    if (packbuf_i_product(node->shape, node->rank, count) && packbuf_i_mul(row, *count, first) &&
        packbuf_i_add(*first, *count, &end) && end <= column->data.count)
      return PACKBUF_OK;
    return packbuf_i_broken_cell(column, PACKBUF_RULE_B13, packbuf_i_buffer_at(column->view, column->data.index), row,
                                 error);
  }
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    return packbuf_i_between(column, &column->item_offsets, row, column->offsets.count ? column->offsets.count - 1 : 0,
                             row, first, count, error);
  return packbuf_i_between(column, &column->offsets, row, column->data.count, row, first, count, error);
}

/* The dimensions of a stored row of a ragged leaf, which is present and has `count` elements with its prefix. */
static packbuf_status packbuf_i_ragged_shape(const packbuf_column *column, uint64_t row, uint64_t count, unsigned *rank,
                                             uint64_t *shape, packbuf_error *error) {
  const packbuf_node *node = &column->node;
  uint8_t dims = node->rank;
  uint64_t product;
  if (packbuf_i_there(&column->ndims) && (!packbuf_i_get8(&column->ndims, row, &dims) || dims > node->rank))
    return packbuf_i_broken_cell(column, PACKBUF_RULE_I10, packbuf_i_element_at(column->view, &column->ndims, row), row,
                                 error);
  *rank = dims;
  if (node->rank < 2) {
    shape[0] = count;
  } else {
    for (unsigned d = 0; d < node->rank; d++) {
      if (!packbuf_i_get64(&column->shape[d], row, &shape[d]) || (d >= dims && shape[d] != 0))
        return packbuf_i_broken_cell(column, PACKBUF_RULE_I10,
                                     packbuf_i_element_at(column->view, &column->shape[d], row), row, error);
    }
  }
  if (!packbuf_i_product(shape, dims, &product) || product != count)
    return packbuf_i_broken_cell(column, PACKBUF_RULE_I11,
                                 packbuf_i_element_at(column->view, &column->offsets, row + 1), row, error);
  return PACKBUF_OK;
}

/* ---- for verification: which rows have to be looked at ---- */

/* Rows that a check has to look at: all of them when a buffer has elements of its own; when all are constants or
 * sequences, nine decide, since a product of at most eight sequences that has the right value in nine rows has it in
 * all. NULL: no such buffer. */
static uint64_t packbuf_i_rows_to_check(uint64_t rows, const packbuf_buffer *const *buffers, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    if (buffers[i] && (buffers[i]->bytes != NULL || buffers[i]->headers != NULL) && buffers[i]->count != 0) return rows;
  }
  return rows < 16 ? rows : 16;
}

/* A constant, or a sequence that does not move (which B8 refuses, but the record may have changed since). */
static int packbuf_i_all_equal(const packbuf_buffer *buffer) {
  return buffer->storage == PACKBUF_CONSTANT ||
         (buffer->storage == PACKBUF_SEQUENCE && packbuf_i_load64(buffer->value + 8) == 0);
}

static int packbuf_i_present(const packbuf_column *c, uint64_t row) {
  if (packbuf_i_there(&c->validity)) return packbuf_i_get_bit(&c->validity, row);
  return !(c->node.kind == PACKBUF_LEAF && c->node.codec == PACKBUF_CODEC_NULL);
}
