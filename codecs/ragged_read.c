/* codecs/ragged_read.c: reading and verifying ragged_tensor and typed_ragged (arrays and nested lists of numbers of
 * any shape), and the rules of offsets that all ragged leaves share.
 * May use: base, access, number, cells, read, numbers_read. Must not know: what the bytes of text and media mean. */

static packbuf_status packbuf_i_ragged_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const packbuf_column *c = cells->column;
  uint64_t first, count, shape[PACKBUF_MAX_RANK];
  unsigned form = 0, number = 0, rank = 0;
  void *kept = NULL;
  packbuf_status status = packbuf_i_read_type(cells, row, &form, &number);
  if (status == PACKBUF_OK) status = packbuf_i_cell_run(c, row, &first, &count, cells->reader->error);
  if (status == PACKBUF_OK) status = packbuf_i_ragged_shape(c, row, count, &rank, shape, cells->reader->error);
  if (status != PACKBUF_OK) return status;
  if (form == PACKBUF_FORM_LIST)
    return packbuf_i_read_list_of_numbers(cells, row, number, rank, shape, first, count, value);
  if (rank) {
    status = packbuf_i_take_one(cells, 1, c->node.rank * sizeof *shape, &kept);
    if (status != PACKBUF_OK) return status;
    memcpy(kept, shape, rank * sizeof *shape);
  }
  return packbuf_i_read_tensor(cells, row, form, rank, (const uint64_t *)kept, first, count, value);
}

#define PACKBUF_I_VERIFY_BLOCK 256 /* elements that a check fetches at a time */

/* Elements first to first + count (at most PACKBUF_I_VERIFY_BLOCK) of 64 bits, fetched once. */
static void packbuf_i_fetch_block(const packbuf_buffer *buffer, uint64_t first, size_t count, uint64_t *out) {
  if (buffer->bytes && !packbuf_i_big_endian()) {
    memcpy(out, buffer->bytes + first * 8,
           count * 8); /* into the caller's memory: out of reach of a second fetch, as it is used in place */
    return;
  }
  for (size_t i = 0; i < count; i++) (void)packbuf_i_get64(buffer, first + i, &out[i]);
}

/* I7: offsets start at 0, do not descend and end at `end`. */
static packbuf_status packbuf_i_verify_offsets(const packbuf_column *c, const packbuf_buffer *offsets, uint64_t end,
                                               packbuf_error *error) {
  uint64_t before = 0, block[PACKBUF_I_VERIFY_BLOCK], first = 0, last = 0, i = 0;
  if (!packbuf_i_there(offsets) || !packbuf_i_readable(offsets) || offsets->count == 0) return PACKBUF_OK;
  if (offsets->bytes == NULL) { /* constant or sequence: the ends decide, since a sequence does not overflow */
    (void)packbuf_i_get64(offsets, 0, &first);
    (void)packbuf_i_get64(offsets, offsets->count - 1, &last);
    if (first == 0 && last == end) return PACKBUF_OK;
    return packbuf_i_broken_cell(c, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, offsets, 0), PACKBUF_NOWHERE, error);
  }
  while (i < offsets->count) {
    const size_t count =
        offsets->count - i < PACKBUF_I_VERIFY_BLOCK ? (size_t)(offsets->count - i) : PACKBUF_I_VERIFY_BLOCK;
    packbuf_i_fetch_block(offsets, i, count, block);
    for (size_t k = 0; k < count; k++, i++) {
      if (PACKBUF_I_UNLIKELY(block[k] < before || (i == 0 && block[k] != 0)))
        return packbuf_i_broken_cell(c, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, offsets, i), i, error);
      before = block[k];
    }
  }
  if (before == end) return PACKBUF_OK;
  return packbuf_i_broken_cell(c, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, offsets, offsets->count - 1),
                               offsets->count - 1, error);
}

/* I8: an absent cell has no extent. */
static packbuf_status packbuf_i_verify_extents(const packbuf_column *c, const packbuf_buffer *offsets,
                                               packbuf_error *error) {
  const packbuf_buffer *with[2];
  uint64_t rows;
  with[0] = offsets, with[1] = &c->validity;
  if (!packbuf_i_there(offsets) || !packbuf_i_there(&c->validity) || !packbuf_i_readable(offsets) ||
      !packbuf_i_readable(&c->validity))
    return PACKBUF_OK;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 2);
  for (uint64_t row = 0; row < rows; row++) {
    uint64_t from = 0, to = 0;
    if (row % 64 == 0 && packbuf_i_get_bits(&c->validity, row / 64) == UINT64_MAX) {
      row += 63;
      continue;
    }
    if (packbuf_i_present(c, row)) continue;
    if (!packbuf_i_get64(offsets, row, &from) || !packbuf_i_get64(offsets, row + 1, &to) || from != to)
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I8, packbuf_i_element_at(c->view, offsets, row + 1), row, error);
  }
  return PACKBUF_OK;
}

/* I7 and I8 of a leaf with one run of elements a cell. */
static packbuf_status packbuf_i_runs_index(const packbuf_column *c, packbuf_error *error) {
  const packbuf_status status = packbuf_i_verify_offsets(c, &c->offsets, c->data.count, error);
  return status != PACKBUF_OK ? status : packbuf_i_verify_extents(c, &c->offsets, error);
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
