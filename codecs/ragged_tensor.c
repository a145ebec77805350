/* codecs/ragged_tensor.c: rows of one dtype, each with its own shape: rows by offsets into one array, one array a row,
 * or tensor cells. Reading and verifying serve typed_ragged too, whose rows may also be lists.
 * May use: columns, pull; access, cells, pieces, leaf, codecs/numbers.c, codecs/offsets.c.
 * Must not know: the layout. */

/* ---- packing ---- */

static uint64_t packbuf_i_item_bytes(const packbuf_ragged *r) {
  uint64_t item = packbuf_i_dtype_bytes(r->dtype);
  for (unsigned i = 0; i < r->item_rank; i++) item *= r->item_shape[i];
  return item;
}

/* Rows by offsets that lie end to end are one run. */
static int packbuf_i_end_to_end(const packbuf_i_node *node) {
  const packbuf_ragged *r = node->ragged;
  return !r->lengths && !node->bitmap &&
         (!r->item_stride || (r->item_stride > 0 && (uint64_t)r->item_stride == packbuf_i_item_bytes(r)));
}

static void packbuf_i_start_offset_row(packbuf_i_pull *pull, uint64_t row) {
  const packbuf_ragged *r = pull->node->ragged;
  uint64_t item = packbuf_i_item_bytes(r), shape[PACKBUF_MAX_RANK];
  int64_t stride[1];
  stride[0] = r->item_stride ? r->item_stride : (int64_t)item;
  packbuf_i_cell_dims(pull->node, row, shape);
  packbuf_i_walk_start(&pull->walk, (const uint8_t *)r->data + stride[0] * (int64_t)packbuf_i_first_item(r, row), 1,
                       shape, stride, item);
}

static packbuf_i_run packbuf_i_pull_offset_rows(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  const packbuf_ragged *r = node->ragged;
  uint64_t item = packbuf_i_item_bytes(r);
  if (packbuf_i_end_to_end(node)) {
    uint64_t first = packbuf_i_first_item(r, 0);
    packbuf_i_run run;
    run.size = pull->at++ ? 0 : (packbuf_i_first_item(r, node->rows) - first) * item;
    run.bytes = (const uint8_t *)r->data + first * item;
    pull->device = r->device;
    return run;
  }
  for (; item && (pull->walking || pull->row < node->rows);) {
    if (!pull->walking) {
      if (packbuf_i_state(node, pull->row++) <= 0) continue;
      packbuf_i_start_offset_row(pull, pull->row - 1);
    }
    pull->walking = pull->walk.left > 0;
    if (pull->walking) {
      packbuf_i_run run = packbuf_i_walk_run(pull, r->device);
      pull->walking = pull->walk.left > 0;
      return run;
    }
  }
  return packbuf_i_scratch_run(pull, 0);
}

static const packbuf_tensor *packbuf_i_row_tensor(const packbuf_i_node *node, uint64_t row) {
  return node->source == PACKBUF_I_FROM_TENSORS ? &node->tensors[row] : packbuf_i_cell(&node->cells, row)->as.tensor;
}

/* Where a row's elements begin, for those who load them before they are asked for; NULL when it has none of its own. */
static const uint8_t *packbuf_i_row_start(const packbuf_i_node *node, uint64_t row) {
  if (row >= node->rows || packbuf_i_state(node, row) <= 0 ||
      (node->source == PACKBUF_I_FROM_CELLS && packbuf_i_cell(&node->cells, row)->kind == PACKBUF_LIST))
    return NULL;
  return (const uint8_t *)packbuf_i_row_tensor(node, row)->data;
}

static packbuf_i_run packbuf_i_whole_array(const packbuf_tensor *tensor) {
  packbuf_i_run run;
  run.bytes = (const uint8_t *)tensor->data;
  run.size = packbuf_i_dtype_bytes(tensor->dtype);
  for (unsigned i = 0; i < tensor->rank; i++) run.size *= tensor->shape[i];
  return run;
}

/* The next run of rows that are arrays; stops with size 0 and pull->row at a row that is a list. */
static packbuf_i_run packbuf_i_pull_arrays(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  while (pull->walking || pull->row < node->rows) {
    const packbuf_tensor *tensor;
    if (!pull->walking) {
      if (packbuf_i_state(node, pull->row) <= 0) {
        pull->row = packbuf_i_next_cell(&node->cells, pull->row + 1);
        continue;
      }
      if (node->source == PACKBUF_I_FROM_CELLS && packbuf_i_cell(&node->cells, pull->row)->kind == PACKBUF_LIST) break;
      tensor = packbuf_i_row_tensor(node, pull->row++);
      pull->ahead = packbuf_i_row_start(node, pull->row);
      if (!tensor->strides) { /* contiguous: no walk */
        packbuf_i_run run = packbuf_i_whole_array(tensor);
        if (!run.size) continue;
        pull->device = tensor->device;
        return run;
      }
      packbuf_i_walk_start(&pull->walk, tensor->data, tensor->rank, tensor->shape, tensor->strides,
                           packbuf_i_dtype_bytes(tensor->dtype));
    } else {
      tensor = packbuf_i_row_tensor(node, pull->row - 1);
    }
    pull->walking = pull->walk.left > 0;
    if (pull->walking) {
      packbuf_i_run run = packbuf_i_walk_run(pull, tensor->device);
      pull->walking = pull->walk.left > 0;
      return run;
    }
  }
  return packbuf_i_scratch_run(pull, 0);
}

static packbuf_i_run packbuf_i_pull_ragged_tensor(packbuf_i_pull *pull) {
  return pull->node->source == PACKBUF_I_FROM_RAGGED ? packbuf_i_pull_offset_rows(pull) : packbuf_i_pull_arrays(pull);
}

/* ---- reading and verifying ---- */

static packbuf_status packbuf_i_ragged_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const packbuf_column *c = cells->column;
  packbuf_piece pieces[2];
  uint64_t elements = 0, shape[PACKBUF_MAX_RANK];
  unsigned form = 0, number = 0, rank = 0, count = 0;
  void *kept = NULL;
  packbuf_status status = packbuf_i_read_type(cells, row, &form, &number);
  if (status == PACKBUF_OK) status = packbuf_i_stored_pieces(c, row, pieces, &count, cells->reader->error);
  for (unsigned i = 0; i < count; i++) elements += pieces[i].count;
  if (status == PACKBUF_OK) status = packbuf_i_ragged_shape(c, row, elements, &rank, shape, cells->reader->error);
  if (status != PACKBUF_OK) return status;
  if (form == PACKBUF_FORM_LIST)
    return packbuf_i_read_list_of_numbers(cells, row, number, rank, shape, pieces, count, value);
  if (rank) {
    status = packbuf_i_take_one(cells, 1, c->node.rank * sizeof *shape, &kept);
    if (status != PACKBUF_OK) return status;
    memcpy(kept, shape, rank * sizeof *shape);
  }
  return packbuf_i_read_tensor(cells, row, form, rank, (const uint64_t *)kept, pieces, count, value);
}

/* The buffers whose rows I10 and I11 read; 0 when one of them cannot be read. */
static unsigned packbuf_i_shape_buffers(const packbuf_column *c, const packbuf_buffer **with) {
  unsigned count = 0;
  with[count++] = &c->validity, with[count++] = &c->ndims;
  for (unsigned d = 0; c->node.rank >= 2 && d < c->node.rank; d++) with[count++] = &c->shape[d];
  for (unsigned i = 0; i < count; i++) {
    if (!packbuf_i_readable(with[i])) return 0;
  }
  return count;
}

/* I10 for one row; the number of its dimensions in *dims. */
static packbuf_status packbuf_i_verify_dims(const packbuf_column *c, uint64_t row, unsigned *dims,
                                            packbuf_error *error) {
  const unsigned rank = packbuf_i_present(c, row) ? c->node.rank : 0;
  uint8_t ndims = (uint8_t)rank;
  if (packbuf_i_there(&c->ndims) && (!packbuf_i_get8(&c->ndims, row, &ndims) || ndims > rank))
    return packbuf_i_broken_cell(c, PACKBUF_RULE_I10, packbuf_i_element_at(c->view, &c->ndims, row), row, error);
  *dims = ndims;
  for (unsigned d = ndims; c->node.rank >= 2 && d < c->node.rank; d++) {
    uint64_t dim = 0;
    if (!packbuf_i_get64(&c->shape[d], row, &dim) || dim != 0)
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I10, packbuf_i_element_at(c->view, &c->shape[d], row), row, error);
  }
  return PACKBUF_OK;
}

/* I11 for one present row with `dims` dimensions. */
static int packbuf_i_extent_fits(const packbuf_column *c, uint64_t row, unsigned dims) {
  uint64_t from, to, shape[PACKBUF_MAX_RANK], product = 1;
  if (dims != 0 && c->node.rank < 2) return 1; /* one dimension, of any length */
  for (unsigned d = 0; d < dims; d++) {
    if (!packbuf_i_get64(&c->shape[d], row, &shape[d])) return 0;
  }
  return packbuf_i_get64(&c->offsets, row, &from) && packbuf_i_get64(&c->offsets, row + 1, &to) &&
         packbuf_i_product(shape, dims, &product) && to - from == product;
}

/* I7, I8, I10, I11, I12. */
static packbuf_status packbuf_i_ragged_index(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[PACKBUF_MAX_RANK + 3];
  const unsigned count = packbuf_i_shape_buffers(c, with);
  packbuf_status status = packbuf_i_runs_index(c, error);
  uint64_t rows = 0;
  unsigned dims;
  if (count) rows = packbuf_i_rows_to_check(c->node.rows, with, count);
  if (c->node.rank < 2 && !packbuf_i_there(&c->ndims) && c->node.rank != 0) rows = 0; /* nothing to look at */
  for (uint64_t row = 0; status == PACKBUF_OK && row < rows; row++)
    status = packbuf_i_verify_dims(c, row, &dims, error);
  if (rows && packbuf_i_readable(&c->offsets)) {
    with[count] = &c->offsets;
    rows = packbuf_i_rows_to_check(c->node.rows, with, count + 1);
  } else {
    rows = 0;
  }
  for (uint64_t row = 0; status == PACKBUF_OK && row < rows; row++) {
    status = packbuf_i_verify_dims(c, row, &dims, error);
    if (status == PACKBUF_OK && packbuf_i_present(c, row) && !packbuf_i_extent_fits(c, row, dims))
      status =
          packbuf_i_broken_cell(c, PACKBUF_RULE_I11, packbuf_i_element_at(c->view, &c->offsets, row + 1), row, error);
  }
  return status != PACKBUF_OK ? status : packbuf_i_verify_types(c, error);
}

/* D3 and D5. */
static packbuf_status packbuf_i_ragged_data(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[3];
  packbuf_status status = packbuf_i_verify_bools(c, error);
  uint64_t rows;
  with[0] = packbuf_i_all_equal(&c->offsets)
                ? NULL
                : &c->data; /* constant offsets: all cells are empty, whatever the data are */
  with[1] = &c->offsets, with[2] = &c->types;
  if (status != PACKBUF_OK || !packbuf_i_there(&c->types) || !packbuf_i_readable(&c->types) ||
      !packbuf_i_readable(&c->offsets))
    return status;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 3);
  for (uint64_t row = 0; status == PACKBUF_OK && row < rows; row++) {
    uint64_t first = 0, count = 0;
    uint8_t type = 0;
    if (!packbuf_i_get8(&c->types, row, &type) || (type & 15) == 0) continue;
    status = packbuf_i_between(c, &c->offsets, row, c->data.count, row, &first, &count, error);
    if (status == PACKBUF_OK) status = packbuf_i_verify_exact(c, row, type & 15, first, count, error);
  }
  return status;
}
