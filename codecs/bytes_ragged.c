/* codecs/bytes_ragged.c: byte strings, one run a cell, packing side. Text, media and opaque cells go the same way.
 * May use: pull, columns. Must not know: the layout. */

static packbuf_i_run packbuf_i_pull_bytes(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  packbuf_i_run run;
  for (run.size = 0, run.bytes = NULL; run.size == 0 && pull->row < node->rows; pull->row++) {
    run.size = packbuf_i_extent(node, pull->row);
    if (!run.size) continue;
    if (node->source == PACKBUF_I_FROM_TEXT) {
      run.bytes = (const uint8_t *)node->texts[pull->row].data;
    } else {
      const packbuf_value *cell = packbuf_i_cell(&node->cells, pull->row);
      const void *data = cell->kind == PACKBUF_MEDIA    ? cell->as.media->data
                         : cell->kind == PACKBUF_OPAQUE ? cell->as.opaque->data
                                                        : cell->as.text.data;
      run.bytes = (const uint8_t *)data;
    }
  }
  return run;
}
