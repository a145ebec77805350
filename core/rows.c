/* core/rows.c: rows that are one run of host memory each, many at a time. What limits the copying of short rows is the
 * wait for their descriptions and first lines: taken together, the descriptions are loaded side by side, and each row's
 * successor is known.
 * May use: columns, pull, codecs (packing). Must not know: where the bytes go. */

#define PACKBUF_I_ROWS_AT_ONCE 64

/* A row of a dense array whose bytes lie side by side; 0 when they do not. */
static int packbuf_i_dense_row(const packbuf_i_node *node, uint64_t row, packbuf_i_run *run) {
  const packbuf_tensor *tensor = node->tensors;
  uint64_t size = packbuf_i_dtype_bytes(tensor->dtype);
  for (unsigned d = tensor->rank; d-- > 1;) {
    if (tensor->strides && tensor->shape[d] != 1 && tensor->strides[d] != (int64_t)size) return 0;
    size *= tensor->shape[d];
  }
  if (node->kept) row = node->kept[row];
  run->bytes = (const uint8_t *)tensor->data + (tensor->strides ? tensor->strides[0] : (int64_t)size) * (int64_t)row;
  run->size = size;
  return 1;
}

/* Whether the items of ragged rows lie side by side. */
static int packbuf_i_side_by_side(const packbuf_ragged *r) {
  return !r->item_stride || r->item_stride == (int64_t)packbuf_i_item_bytes(r);
}

/* 1 when a row's data are one run, which may be empty. */
static int packbuf_i_row_bytes(const packbuf_i_node *node, uint64_t row, packbuf_i_run *run) {
  run->bytes = NULL;
  run->size = 0;
  switch (node->source) {
    case PACKBUF_I_FROM_TENSORS: {
      const packbuf_tensor *tensor = &node->tensors[row];
      if (!tensor->dtype.bits) return 1;
      if (tensor->strides || tensor->device) return 0;
      *run = packbuf_i_whole_array(tensor);
      return 1;
    }
    case PACKBUF_I_FROM_TEXT:
      run->bytes = (const uint8_t *)node->texts[row].data;
      run->size = run->bytes ? node->texts[row].size : 0;
      return 1;
    case PACKBUF_I_FROM_CELLS: return packbuf_i_cell_bytes(packbuf_i_cell(&node->cells, row), run);
    case PACKBUF_I_FROM_TENSOR: return packbuf_i_dense_row(node, row, run);
    case PACKBUF_I_FROM_RAGGED: {
      const packbuf_ragged *r = node->ragged;
      const uint64_t item = packbuf_i_item_bytes(r);
      if (!packbuf_i_side_by_side(r)) return 0;
      if (packbuf_i_state(node, row) <= 0) return 1;
      run->bytes = (const uint8_t *)r->data + packbuf_i_first_item(r, row) * item;
      run->size = packbuf_i_items(r, row) * item;
      return 1;
    }
    default: return 0;
  }
}

/* Whether rows of this leaf may be taken that way at all; those that lie end to end are one run anyway. */
static int packbuf_i_has_rows(const packbuf_i_node *node) {
  switch (node->source) {
    case PACKBUF_I_FROM_TENSORS:
    case PACKBUF_I_FROM_TEXT: return 1;
    case PACKBUF_I_FROM_TENSOR: return node->kept && !node->device;
    case PACKBUF_I_FROM_RAGGED:
      return !node->device && !packbuf_i_end_to_end(node) && packbuf_i_side_by_side(node->ragged);
    default: return node->codec == PACKBUF_CODEC_UTF8_RAGGED || node->codec == PACKBUF_CODEC_BYTES_RAGGED;
  }
}

/* The next runs of a pull of data that stands at the start of a row, PACKBUF_I_ROWS_AT_ONCE at most, none empty;
 * returns how many. It stops at a row that packbuf_i_pull_next must take. */
static unsigned packbuf_i_pull_rows(packbuf_i_pull *pull, packbuf_i_run *runs) {
  const packbuf_i_node *node = pull->node;
  uint64_t row = pull->row;
  unsigned count = 0;
  if (pull->walking || pull->at) return 0;
  for (; count < PACKBUF_I_ROWS_AT_ONCE; row++) {
    row = packbuf_i_next_cell(&node->cells, row);
    if (row >= node->rows) break;
    if (!packbuf_i_row_bytes(node, row, &runs[count])) break;
    count += runs[count].size != 0;
  }
  pull->row = row;
  if (count) pull->device = NULL;
  return count;
}
