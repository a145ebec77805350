/* codecs/ragged_tensor.c: rows of one dtype, each with its own shape, packing side: rows by offsets into one array,
 * one array a row, or tensor cells. codecs/typed_ragged.c adds rows that are lists.
 * May use: pull, columns. Must not know: the layout. */

static packbuf_i_run packbuf_i_pull_offset_rows(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  const packbuf_ragged *r = node->ragged;
  uint64_t item = packbuf_i_dtype_bytes(r->dtype), shape[PACKBUF_MAX_RANK];
  int64_t stride;
  for (unsigned i = 0; i < r->item_rank; i++) item *= r->item_shape[i];
  stride = r->item_stride ? r->item_stride : (int64_t)item;
  if (!r->lengths && !node->bitmap && stride == (int64_t)item) { /* rows lie end to end: one run */
    uint64_t first = packbuf_i_native_offset(r->offsets, r->offset_bits, 0);
    packbuf_i_run run;
    run.size = pull->at++ ? 0 : (packbuf_i_native_offset(r->offsets, r->offset_bits, node->rows) - first) * item;
    run.bytes = (const uint8_t *)r->data + first * item;
    pull->device = r->device;
    return run;
  }
  for (; item && (pull->walking || pull->row < node->rows);) {
    if (!pull->walking) {
      int64_t strides[1];
      if (packbuf_i_state(node, pull->row++) <= 0) continue;
      packbuf_i_cell_dims(node, pull->row - 1, shape);
      strides[0] = stride;
      packbuf_i_walk_start(&pull->walk,
                           (const uint8_t *)r->data +
                               stride * (int64_t)packbuf_i_native_offset(r->offsets, r->offset_bits, pull->row - 1),
                           1, shape, strides, item);
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
        pull->row++;
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
