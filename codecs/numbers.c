/* codecs/numbers.c: what ndarray, ragged_tensor and typed_ragged share when they are read and verified: cells shown as
 * tensors, arrays, scalars, numbers or nested lists, by the form and types of section 9; the rules I12, D3 and D5.
 * May use: base, access, number, cells, leaf. Must not know: where a cell's extent comes from. */

/* Number type and form of a present cell. */
static packbuf_status packbuf_i_read_type(const packbuf_i_leaf_cells *cells, uint64_t row, unsigned *form,
                                          unsigned *number) {
  const packbuf_column *c = cells->column;
  uint8_t type = 0;
  if (packbuf_i_there(&c->types) && (!packbuf_i_get8(&c->types, row, &type) || !packbuf_i_type_allowed(&c->node, type)))
    return packbuf_i_broken_read(cells, PACKBUF_RULE_I12, packbuf_i_element_at(c->view, &c->types, row), row);
  *form = type >> 4 ? type >> 4 : c->node.form;
  *number = type & 15;
  return PACKBUF_OK;
}

/* Tensor, array or scalar over the elements in up to two pieces; shape must outlive it. */
static packbuf_status packbuf_i_read_tensor(packbuf_i_leaf_cells *cells, uint64_t row, unsigned form, unsigned rank,
                                            const uint64_t *shape, const packbuf_piece *pieces, unsigned piece_count,
                                            packbuf_value *value) {
  const packbuf_column *c = cells->column;
  packbuf_tensor *tensor;
  const void *data = NULL;
  void *memory;
  packbuf_status status = packbuf_i_piece_elements(cells, pieces, piece_count, &data);
  if (status != PACKBUF_OK) return status;
  for (uint64_t p = 0, at = 0; c->node.dtype.code == PACKBUF_DTYPE_BOOL && p < piece_count; p++) {
    const uint64_t count = pieces[p].count;
    uint64_t wrong;
    status = packbuf_i_may_check(cells->reader, count);
    if (status != PACKBUF_OK) return status;
    wrong = packbuf_i_first_not_bool((const uint8_t *)data + at, count);
    if (wrong < count)
      return packbuf_i_broken_read(cells, PACKBUF_RULE_D3,
                                   packbuf_i_element_at(c->view, &c->data, pieces[p].first + wrong), row);
    at += count;
  }
  status = packbuf_i_take_one(cells, 0, sizeof *tensor, &memory);
  if (status != PACKBUF_OK) return status;
  tensor = (packbuf_tensor *)memory;
  memset(tensor, 0, sizeof *tensor);
  tensor->data = data;
  tensor->dtype = c->node.dtype;
  tensor->rank = (uint8_t)rank;
  tensor->form = (uint8_t)form;
  tensor->shape = rank ? shape : NULL;
  *value = packbuf_tensor_value(tensor);
  return PACKBUF_OK;
}

/* One element as a plain number; a complex one is a scalar. */
static packbuf_status packbuf_i_read_number(packbuf_i_leaf_cells *cells, uint64_t row, uint64_t i, unsigned number,
                                            packbuf_value *value) {
  const packbuf_column *c = cells->column;
  packbuf_rule rule;
  if (c->node.dtype.code == PACKBUF_DTYPE_COMPLEX) {
    packbuf_piece element;
    element.first = i, element.count = 1;
    return packbuf_i_read_tensor(cells, row, PACKBUF_FORM_SCALAR, 0, NULL, &element, 1, value);
  }
  rule = packbuf_i_number(&c->data, i, number, value);
  if (PACKBUF_I_UNLIKELY(rule == PACKBUF_RULE_I7 && (c->data.partial || c->data.headers))) {
    const uint64_t size = packbuf_i_element_bits(c->data.dtype) / 8;
    return packbuf_i_not_fetched(&c->data, i * size, size, cells->row, cells->reader->error);
  }
  return rule == PACKBUF_RULE_NONE
             ? PACKBUF_OK
             : packbuf_i_broken_read(cells, rule, packbuf_i_element_at(c->view, &c->data, i), row);
}

/* Nested lists of the numbers in one or two pieces, from the inside out: the numbers first, then for each dimension,
 * last to first, the lists of what was made before. No dimensions: the number. */
static packbuf_status packbuf_i_read_list_of_numbers(packbuf_i_leaf_cells *cells, uint64_t row, unsigned number,
                                                     unsigned rank, const uint64_t *shape, const packbuf_piece *pieces,
                                                     unsigned piece_count, packbuf_value *value) {
  packbuf_value *items;
  void *memory;
  uint64_t count = 0, at = 0;
  packbuf_status status;
  if (rank == 0) return packbuf_i_read_number(cells, row, pieces[0].first, number, value);
  for (unsigned p = 0; p < piece_count; p++) count += pieces[p].count;
  status = packbuf_i_take(cells->reader, count, sizeof *items, 8, &memory);
  if (status != PACKBUF_OK) return status;
  items = (packbuf_value *)memory;
  for (unsigned p = 0; p < piece_count; p++) {
    for (uint64_t i = 0; i < pieces[p].count; i++) {
      status = packbuf_i_read_number(cells, row, pieces[p].first + i, number, &items[at++]);
      if (status != PACKBUF_OK) return status;
    }
  }
  for (unsigned d = rank; d-- > 0;) {
    packbuf_value *lists = value;
    uint64_t size = 1;
    if (d > 0) { /* how many lists: a zero further in leaves any number of empty ones, which the memory bounds */
      if (!packbuf_i_product(shape, d, &size)) return packbuf_i_no_room(cells->reader, UINT64_MAX);
      status = packbuf_i_take(cells->reader, size, sizeof *lists, 8, &memory);
      if (status != PACKBUF_OK) return status;
      lists = (packbuf_value *)memory;
    }
    if (shape[d] > SIZE_MAX) return packbuf_i_no_room(cells->reader, UINT64_MAX);
    for (uint64_t i = 0; i < size; i++)
      lists[i] = packbuf_list(shape[d] ? items + i * shape[d] : NULL, (size_t)shape[d]);
    items = lists;
  }
  return PACKBUF_OK;
}

/* The first byte of packed bools that is neither 0 nor 1; count when there is none. */
static uint64_t packbuf_i_first_packed_not_bool(const packbuf_buffer *data) {
  uint8_t block[PACKBUF_I_BLOCK_BYTES];
  for (uint64_t first = 0; first < data->count; first += sizeof block) {
    const uint64_t left = data->count - first, size = left < sizeof block ? left : sizeof block;
    uint64_t wrong;
    if (!packbuf_i_unpack_units(data, first, size, block)) return first;
    wrong = packbuf_i_first_not_bool(block, size);
    if (wrong < size) return first + wrong;
  }
  return data->count;
}

/* D3: bools that are stored (B7 checks a constant one). */
static packbuf_status packbuf_i_verify_bools(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *data = &c->data;
  uint64_t wrong;
  if (c->node.dtype.code != PACKBUF_DTYPE_BOOL || !packbuf_i_dtype_known(c->node.dtype) ||
      (data->bytes == NULL && data->headers == NULL))
    return PACKBUF_OK;
  wrong = data->headers ? packbuf_i_first_packed_not_bool(data) : packbuf_i_first_not_bool(data->bytes, data->count);
  return wrong == data->count ? PACKBUF_OK
                              : packbuf_i_broken_cell(c, PACKBUF_RULE_D3, packbuf_i_element_at(c->view, data, wrong),
                                                      PACKBUF_NOWHERE, error);
}

/* D5 for `count` elements of one cell. Of a constant one element decides, of a sequence three do: two in a row that are
 * 0 or 1 and a third make a constant. */
static packbuf_status packbuf_i_verify_exact(const packbuf_column *c, uint64_t row, unsigned number, uint64_t first,
                                             uint64_t count, packbuf_error *error) {
  if (packbuf_i_computed(&c->data) && count > 3) count = 3;
  for (uint64_t i = first; i < first + count; i++) {
    uint64_t raw;
    if (!packbuf_i_get_raw(&c->data, i, &raw) || !packbuf_i_exact(raw, c->data.dtype, number))
      return packbuf_i_broken_cell(c, PACKBUF_RULE_D5, packbuf_i_element_at(c->view, &c->data, i), row, error);
  }
  return PACKBUF_OK;
}

/* I12 for types that stand one to a row. */
static packbuf_status packbuf_i_verify_types(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[2];
  uint64_t rows;
  with[0] = &c->types, with[1] = &c->validity;
  if (!packbuf_i_there(&c->types) || !packbuf_i_readable(&c->types) || !packbuf_i_readable(&c->validity))
    return PACKBUF_OK;
  rows = packbuf_i_rows_to_check(c->types.count, with, 2);
  for (uint64_t row = 0; row < rows; row++) {
    uint8_t type = 0;
    if (packbuf_i_get8(&c->types, row, &type) && type == 0) continue;
    if (!packbuf_i_present(c, row) || !packbuf_i_type_allowed(&c->node, type))
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I12, packbuf_i_element_at(c->view, &c->types, row), row, error);
  }
  return PACKBUF_OK;
}
