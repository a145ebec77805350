/* codecs/media_list_ragged.c: lists of media or byte strings, packing side: the items' bytes end to end.
 * May use: pull, columns. Must not know: the layout. */

static packbuf_i_run packbuf_i_pull_media_list(packbuf_i_pull *pull) {
  const packbuf_i_node *node = pull->node;
  packbuf_i_run run;
  run.bytes = NULL;
  run.size = 0;
  while (run.size == 0 && pull->row < node->rows) {
    const packbuf_value *item;
    if (pull->at == packbuf_i_item_count(node, pull->row)) {
      pull->row++;
      pull->at = 0;
      continue;
    }
    item = &packbuf_i_cell(&node->cells, pull->row)->as.list.items[pull->at++];
    run.size = packbuf_i_item_size(item);
    run.bytes = (const uint8_t *)(item->kind == PACKBUF_MEDIA ? item->as.media->data : item->as.text.data);
  }
  return run;
}
