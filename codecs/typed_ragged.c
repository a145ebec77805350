/* codecs/typed_ragged.c: rows that are lists of numbers, or arrays: how they are packed. They are read as
 * ragged_tensor's.
 * May use: columns, pull, codecs/ragged_tensor.c for the rows that are arrays. Must not know: the layout. */

static packbuf_i_run packbuf_i_pull_typed_ragged(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  uint64_t element = packbuf_i_dtype_bytes(node->dtype), fits = PACKBUF_I_SCRATCH / element, filled = 0;
  if (node->source != PACKBUF_I_FROM_CELLS) return packbuf_i_pull_ragged_tensor(pull);
  while (filled < fits) {
    const packbuf_value *cell;
    uint64_t count, extent;
    if (!pull->walking && !pull->at) pull->row = packbuf_i_next_cell(&node->cells, pull->row);
    if (!pull->walking && pull->row >= node->rows) break;
    if (pull->walking || (cell = packbuf_i_cell(&node->cells, pull->row))->kind == PACKBUF_TENSOR) {
      if (filled) break; /* hand out the numbers gathered so far */
      packbuf_i_run run = packbuf_i_pull_arrays(pull);
      if (run.size) return run;
      continue;
    }
    extent = packbuf_i_extent(node, pull->row);
    count = extent - pull->at < fits - filled ? extent - pull->at : fits - filled;
    if (count) packbuf_i_put_numbers(cell, node->dtype, pull->at, count, pull->scratch + filled * element);
    filled += count;
    pull->at += count;
    if (pull->at == extent) {
      pull->at = 0;
      pull->row++;
    }
  }
  return packbuf_i_scratch_run(pull, filled * element);
}
