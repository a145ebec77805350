/* codecs/bytes_ragged.c: byte strings, one run a cell. Text, media and opaque cells are packed the same way, opaque
 * ones also read here; what text must be is in codecs/text.c.
 * May use: columns, pull; leaf. Must not know: the layout, what the bytes mean. */

/* ---- packing ---- */

/* The bytes of a cell; none of an absent one. */
static packbuf_i_run packbuf_i_byte_cell(const packbuf_i_node *node, uint64_t row) {
  packbuf_i_run run;
  run.bytes = NULL;
  run.size = packbuf_i_extent(node, row);
  if (run.size == 0) return run;
  if (node->source == PACKBUF_I_FROM_TEXT) run.bytes = (const uint8_t *)node->texts[row].data;
  else (void)packbuf_i_cell_bytes(packbuf_i_cell(&node->cells, row), &run);
  return run;
}

static packbuf_i_run packbuf_i_pull_bytes(packbuf_i_pull *pull) {
  packbuf_i_run run;
  for (run.size = 0, run.bytes = NULL; run.size == 0; pull->row++) {
    pull->row = packbuf_i_next_cell(&pull->node->cells, pull->row);
    if (pull->row >= pull->node->rows) break;
    run = packbuf_i_byte_cell(pull->node, pull->row);
  }
  return run;
}

/* ---- reading ---- */

static packbuf_status packbuf_i_bytes_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const void *data = NULL;
  uint64_t first;
  size_t size;
  const packbuf_status status = packbuf_i_cell_text(cells, row, &first, &data, &size);
  if (status == PACKBUF_OK) *value = packbuf_bytes(data, size);
  return status;
}

static packbuf_status packbuf_i_opaque_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const packbuf_text *serializer = &cells->column->node.parameter;
  packbuf_opaque *opaque;
  const void *data = NULL;
  void *memory;
  uint64_t first;
  size_t size;
  packbuf_status status = packbuf_i_cell_text(cells, row, &first, &data, &size);
  if (status == PACKBUF_OK) status = packbuf_i_take_one(cells, 0, sizeof *opaque, &memory);
  if (status != PACKBUF_OK) return status;
  opaque = (packbuf_opaque *)memory;
  opaque->data = data;
  opaque->size = size;
  opaque->serializer = serializer->data;
  opaque->serializer_size = serializer->size;
  *value = packbuf_opaque_value(opaque);
  return PACKBUF_OK;
}
