/* codecs/ndarray.c: cells of one shape, packing side: one dense array, or plain numbers and typed scalars one by one.
 * An absent cell is zero bytes.
 * May use: pull, columns. Must not know: the layout. */

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

static packbuf_i_run packbuf_i_pull_dense(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  const packbuf_tensor *tensor = node->tensors;
  uint64_t element = packbuf_i_dtype_bytes(tensor->dtype), cell = element;
  int64_t step;
  for (unsigned i = 1; i < tensor->rank; i++) cell *= tensor->shape[i];
  step = tensor->strides ? tensor->strides[0] : (int64_t)cell;
  if (!node->bitmap) { /* the whole array is one walk */
    if (!pull->walking)
      packbuf_i_walk_start(&pull->walk, tensor->data, tensor->rank, tensor->shape, tensor->strides, element);
    pull->walking = 1;
    return packbuf_i_walk_run(pull, tensor->device);
  }
  for (; cell && (pull->walking ? pull->walk.left > 0 : pull->row < node->rows); pull->walking = 0) {
    if (!pull->walking) {
      if (packbuf_i_state(node, pull->row) <= 0) return packbuf_i_pull_zeros(pull, cell);
      packbuf_i_walk_start(&pull->walk, (const uint8_t *)tensor->data + step * (int64_t)pull->row, tensor->rank - 1u,
                           tensor->shape + 1, tensor->strides ? tensor->strides + 1 : NULL, element);
      pull->row++;
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
  uint64_t element = packbuf_i_dtype_bytes(node->dtype), size = 0;
  for (; size + element <= PACKBUF_I_SCRATCH && pull->row < node->rows; pull->row++, size += element) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, pull->row);
    uint8_t *to = pull->scratch + size;
    if (cell->kind == PACKBUF_NULL || cell->kind == PACKBUF_MISSING) memset(to, 0, (size_t)element);
    else if (cell->kind != PACKBUF_TENSOR) packbuf_i_put_numbers(cell, node->dtype, 0, 1, to);
    else if (!cell->as.tensor->device) memcpy(to, cell->as.tensor->data, (size_t)element);
    else if (!pull->status)
      pull->status =
          cell->as.tensor->device->copy(cell->as.tensor->device->context, to, cell->as.tensor->data, (size_t)element);
  }
  return packbuf_i_scratch_run(pull, size);
}

static packbuf_i_run packbuf_i_pull_ndarray(packbuf_i_pull *pull) {
  return pull->node->source == PACKBUF_I_FROM_TENSOR ? packbuf_i_pull_dense(pull) : packbuf_i_pull_numbers(pull);
}
