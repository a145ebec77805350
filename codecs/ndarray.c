/* codecs/ndarray.c: cells of one shape side by side: one dense array, or plain numbers and typed scalars one by one.
 * An absent cell is zero bytes.
 * May use: columns, pull; access, cells, leaf, codecs/numbers.c. Must not know: the layout, ragged leaves. */

/* ---- packing ---- */

/* Zero bytes for the absent cell at pull->row, in pieces. */
static packbuf_i_run packbuf_i_pull_zeros(packbuf_i_pull *pull, uint64_t bytes) {
  uint64_t size = bytes - pull->at < PACKBUF_I_SCRATCH ? bytes - pull->at : PACKBUF_I_SCRATCH;
  memset(pull->scratch, 0, (size_t)size);
  pull->at += size;
  if (pull->at == bytes) {
    pull->at = 0;
    pull->row++;
  }
  return packbuf_i_scratch_run(pull, size);
}

/* A walk over one row of a dense array. */
static void packbuf_i_start_dense_row(packbuf_i_pull *pull, uint64_t row, uint64_t cell) {
  const packbuf_tensor *tensor = pull->node->tensors;
  int64_t step = tensor->strides ? tensor->strides[0] : (int64_t)cell;
  if (pull->node->kept) row = pull->node->kept[row];
  packbuf_i_walk_start(&pull->walk, (const uint8_t *)tensor->data + step * (int64_t)row, tensor->rank - 1u,
                       tensor->shape + 1, tensor->strides ? tensor->strides + 1 : NULL,
                       packbuf_i_dtype_bytes(tensor->dtype));
}

static uint64_t packbuf_i_dense_cell_bytes(const packbuf_tensor *tensor) {
  uint64_t cell = packbuf_i_dtype_bytes(tensor->dtype);
  for (unsigned i = 1; i < tensor->rank; i++) cell *= tensor->shape[i];
  return cell;
}

static packbuf_i_run packbuf_i_pull_dense(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  const packbuf_tensor *tensor = node->tensors;
  uint64_t cell = packbuf_i_dense_cell_bytes(tensor);
  if (!node->bitmap && !node->kept) { /* the whole array is one walk */
    if (!pull->walking)
      packbuf_i_walk_start(&pull->walk, tensor->data, tensor->rank, tensor->shape, tensor->strides,
                           packbuf_i_dtype_bytes(tensor->dtype));
    pull->walking = 1;
    return packbuf_i_walk_run(pull, tensor->device);
  }
  for (; cell && (pull->walking ? pull->walk.left > 0 : pull->row < node->rows); pull->walking = 0) {
    if (!pull->walking) {
      if (packbuf_i_state(node, pull->row) <= 0) return packbuf_i_pull_zeros(pull, cell);
      packbuf_i_start_dense_row(pull, pull->row++, cell);
    }
    pull->walking = 1;
    {
      packbuf_i_run run = packbuf_i_walk_run(pull, tensor->device);
      if (!pull->walk.left) pull->walking = 0;
      return run;
    }
  }
  return packbuf_i_scratch_run(pull, 0);
}

static packbuf_i_run packbuf_i_pull_numbers(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  const uint64_t element = packbuf_i_dtype_bytes(node->dtype), begin = pull->row, left = node->rows - begin;
  const uint64_t count = PACKBUF_I_SCRATCH / element < left ? PACKBUF_I_SCRATCH / element : left;
  pull->row += count;
  if (node->cells.sparse) memset(pull->scratch, 0, (size_t)(count * element));
  for (uint64_t row = packbuf_i_next_cell(&node->cells, begin); row < pull->row;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    uint8_t *to = pull->scratch + (row - begin) * element;
    if (cell->kind == PACKBUF_NULL || cell->kind == PACKBUF_MISSING) memset(to, 0, (size_t)element);
    else if (cell->kind != PACKBUF_TENSOR) packbuf_i_put_numbers(cell, node->dtype, 0, 1, to);
    else if (!cell->as.tensor->device) memcpy(to, cell->as.tensor->data, (size_t)element);
    else if (!pull->status)
      pull->status =
          cell->as.tensor->device->copy(cell->as.tensor->device->context, to, cell->as.tensor->data, (size_t)element);
  }
  return packbuf_i_scratch_run(pull, count * element);
}

static packbuf_i_run packbuf_i_pull_ndarray(packbuf_i_pull *pull) {
  return pull->node->source == PACKBUF_I_FROM_TENSOR ? packbuf_i_pull_dense(pull) : packbuf_i_pull_numbers(pull);
}

/* ---- reading and verifying ---- */

static packbuf_status packbuf_i_ndarray_begin(packbuf_i_leaf_cells *cells) {
  const packbuf_node *node = &cells->column->node;
  void *shape;
  packbuf_status status = packbuf_i_take(cells->reader, node->rank, sizeof *node->shape, 8, &shape);
  if (status != PACKBUF_OK) return status;
  memcpy(shape, node->shape, node->rank * sizeof *node->shape);
  cells->shape = (const uint64_t *)shape;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_ndarray_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const packbuf_node *node = &cells->column->node;
  packbuf_piece run = {0, 0};
  unsigned form = 0, number = 0;
  packbuf_status status = packbuf_i_read_type(cells, row, &form, &number);
  if (status == PACKBUF_OK)
    status = packbuf_i_cell_run(cells->column, row, &run.first, &run.count, cells->reader->error);
  if (status != PACKBUF_OK) return status;
  if (node->rank == 0 && form == PACKBUF_FORM_NATURAL)
    return packbuf_i_read_number(cells, row, run.first, number, value);
  return packbuf_i_read_tensor(cells, row, form, node->rank, cells->shape, &run, 1, value);
}

/* The first of `size` bytes that is not zero, or `size`. */
static uint64_t packbuf_i_first_not_zero(const uint8_t *data, uint64_t size) {
  uint64_t i = 0;
  while (size - i >= 8 && packbuf_i_load64(data + i) == 0) i += 8;
  while (i < size && data[i] == 0) i++;
  return i;
}

/* The first of packed units first to end that is not 0; end when there is none. */
static uint64_t packbuf_i_first_packed_not_zero(const packbuf_buffer *data, uint64_t first, uint64_t end) {
  const unsigned unit = packbuf_i_unit_bits(data->dtype) / 8, full = PACKBUF_I_BLOCK_BYTES / unit;
  uint8_t block[PACKBUF_I_BLOCK_BYTES];
  while (first < end) {
    const uint64_t count = end - first < full ? end - first : full;
    uint64_t at;
    if (!packbuf_i_unpack_units(data, first, count, block)) return first;
    at = packbuf_i_first_not_zero(block, count * unit);
    if (at < count * unit) return first + at / unit;
    first += count;
  }
  return end;
}

/* D4 for one absent row, of a known dtype: elements are whole bytes. */
static packbuf_status packbuf_i_verify_absent(const packbuf_column *c, uint64_t row, uint64_t each,
                                              packbuf_error *error) {
  const packbuf_buffer *data = &c->data;
  const uint64_t size = packbuf_i_element_bits(data->dtype) / 8;
  uint64_t at = UINT64_MAX;
  if (data->bytes || data->headers) {
    uint64_t end;
    if (!packbuf_i_mul(row + 1, each, &end) || end > data->count)
      return packbuf_i_broken_cell(c, PACKBUF_RULE_B13, packbuf_i_buffer_at(c->view, data->index), row, error);
    if (data->headers) {
      at = packbuf_i_first_packed_not_zero(data, end - each, end);
      if (at == end) return PACKBUF_OK;
      return packbuf_i_broken_cell(c, PACKBUF_RULE_D4, packbuf_i_element_at(c->view, data, at), row, error);
    }
    at = packbuf_i_first_not_zero(data->bytes + (end - each) * size, each * size);
    at = at < each * size ? data->offset + (end - each) * size + at : UINT64_MAX;
  } else if (each != 0 && data->storage == PACKBUF_CONSTANT) {
    at = packbuf_i_first_not_zero(data->value, size);
    at = at < size ? packbuf_i_element_at(c->view, data, 0) + at : UINT64_MAX;
  } else {
    for (uint64_t i = row * each; i < row * each + (each < 2 ? each : 2);
         i++) { /* two zeros in a row: a sequence of zeros */
      uint64_t element;
      if (!packbuf_i_get64(data, i, &element) || element != 0) at = packbuf_i_element_at(c->view, data, i);
    }
  }
  return at == UINT64_MAX ? PACKBUF_OK : packbuf_i_broken_cell(c, PACKBUF_RULE_D4, at, row, error);
}

static packbuf_status packbuf_i_ndarray_index(const packbuf_column *c, packbuf_error *error) {
  return packbuf_i_verify_types(c, error);
}

static packbuf_status packbuf_i_ndarray_data(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[2];
  uint64_t each = 0, rows = 0;
  packbuf_status status = PACKBUF_OK;
  if (!packbuf_i_dtype_known(c->node.dtype)) return PACKBUF_OK; /* where its elements lie is not known either */
  status = packbuf_i_verify_bools(c, error);
  with[0] = &c->data, with[1] = &c->validity;
  (void)packbuf_i_product(c->node.shape, c->node.rank, &each);
  if (packbuf_i_there(&c->validity) && packbuf_i_readable(&c->validity) && each != 0)
    rows = packbuf_i_rows_to_check(c->node.rows, with, 2);
  for (uint64_t row = 0; status == PACKBUF_OK && row < rows; row++) {
    if (row % 64 == 0 && packbuf_i_get_bits(&c->validity, row / 64) == UINT64_MAX) row += 63;
    else if (!packbuf_i_present(c, row)) status = packbuf_i_verify_absent(c, row, each, error);
  }
  with[1] = &c->types;
  if (status != PACKBUF_OK || !packbuf_i_there(&c->types) || !packbuf_i_readable(&c->types)) return status;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 2);
  for (uint64_t row = 0; status == PACKBUF_OK && row < rows; row++) {
    uint8_t type = 0;
    if (packbuf_i_get8(&c->types, row, &type) && (type & 15) != 0)
      status = packbuf_i_verify_exact(c, row, type & 15, row, 1, error);
  }
  return status;
}
