/* codecs/media_list_ragged.c: lists of media or byte strings: the items' bytes end to end, offsets of items and of
 * bytes.
 * May use: columns, pull; access, cells, leaf, codecs/media_bytes.c, codecs/offsets.c. Must not know: the layout. */

/* ---- packing ---- */

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
    (void)packbuf_i_cell_bytes(item, &run);
  }
  return run;
}

/* ---- reading and verifying ---- */

/* One item of a media list: bytes or media by its form. */
static packbuf_status packbuf_i_media_item(packbuf_i_leaf_cells *cells, uint64_t row, uint64_t item,
                                           packbuf_value *value) {
  const packbuf_column *c = cells->column;
  uint64_t first = 0, count = 0;
  uint8_t type = 0;
  const void *data = NULL;
  packbuf_status status =
      packbuf_i_between(c, &c->offsets, item, c->data.count, row, &first, &count, cells->reader->error);
  if (status != PACKBUF_OK) return status;
  if (packbuf_i_there(&c->types) &&
      (!packbuf_i_get8(&c->types, item, &type) || !packbuf_i_type_allowed(&c->node, type)))
    return packbuf_i_broken_read(cells, PACKBUF_RULE_I12, packbuf_i_element_at(c->view, &c->types, item), row);
  status = packbuf_i_elements(cells, first, count, &data);
  if (status != PACKBUF_OK) return status;
  if ((type ? type >> 4 : c->node.form) != PACKBUF_FORM_BYTES)
    return packbuf_i_media_value(cells, item, data, (size_t)count, value);
  *value = packbuf_bytes(data, (size_t)count);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_media_list_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  packbuf_value *items;
  void *memory;
  uint64_t first = 0, count = 0;
  packbuf_status status = packbuf_i_cell_run(cells->column, row, &first, &count, cells->reader->error);
  if (status == PACKBUF_OK) status = packbuf_i_take(cells->reader, count, sizeof *items, 8, &memory);
  if (status != PACKBUF_OK) return status;
  items = (packbuf_value *)memory;
  for (uint64_t i = 0; i < count; i++) {
    status = packbuf_i_media_item(cells, row, first + i, &items[i]);
    if (status != PACKBUF_OK) return status;
  }
  *value = packbuf_list(count ? items : NULL, (size_t)count);
  return PACKBUF_OK;
}

/* I7, I8 and I12, whose types stand one to an item. */
static packbuf_status packbuf_i_media_list_index(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[1];
  packbuf_status status = packbuf_i_verify_offsets(c, &c->offsets, c->data.count, error);
  uint64_t items = 0;
  if (status == PACKBUF_OK)
    status = packbuf_i_verify_offsets(c, &c->item_offsets, c->offsets.count ? c->offsets.count - 1 : 0, error);
  if (status == PACKBUF_OK) status = packbuf_i_verify_extents(c, &c->item_offsets, error);
  with[0] = &c->types;
  if (packbuf_i_there(&c->types) && packbuf_i_readable(&c->types))
    items = packbuf_i_rows_to_check(c->types.count, with, 1);
  for (uint64_t item = 0; status == PACKBUF_OK && item < items; item++) {
    uint8_t type = 0;
    if (!packbuf_i_get8(&c->types, item, &type) || !packbuf_i_type_allowed(&c->node, type))
      status = packbuf_i_broken_cell(c, PACKBUF_RULE_I12, packbuf_i_element_at(c->view, &c->types, item), item, error);
  }
  return status;
}
