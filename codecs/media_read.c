/* codecs/media_read.c: reading and verifying media_bytes and media_list_ragged: bytes with attributes, which are
 * ordinary child leaves, one row a cell (media_bytes) or one row an item (media_list_ragged).
 * May use: base, access, number, cells, read, ragged_read (offsets), text_read. Must not know: what an image is. */

/* Which attribute a leaf is, or PACKBUF_I_ATTRIBUTES: by name, and only with the codec and dtype that section 9 gives
 * it. */
static unsigned packbuf_i_media_attribute_of(const packbuf_node *leaf) {
  unsigned i = packbuf_i_attribute_named(leaf->name.data, leaf->name.size);
  if (leaf->kind != PACKBUF_LEAF) return PACKBUF_I_ATTRIBUTES;
  if (i == PACKBUF_I_MIME || i == PACKBUF_I_MODE)
    return leaf->codec == PACKBUF_CODEC_UTF8_RAGGED ? i : (unsigned)PACKBUF_I_ATTRIBUTES;
  if (i < PACKBUF_I_ATTRIBUTES &&
      (leaf->codec != PACKBUF_CODEC_NDARRAY || leaf->rank != 0 || leaf->form != PACKBUF_FORM_NATURAL ||
       leaf->dtype.bits != 64 || leaf->dtype.lanes != 1 ||
       leaf->dtype.code != (i == PACKBUF_I_RATE ? PACKBUF_DTYPE_FLOAT : PACKBUF_DTYPE_INT)))
    return PACKBUF_I_ATTRIBUTES;
  return i;
}

/* Opens the attribute leaves, once for all rows, the first of a name. Leaves that are no attributes or cannot be read
 * are left to those who read them as leaves. What is used is judged as it was opened: its record may have changed since
 * it was first fetched. */
static packbuf_status packbuf_i_media_begin(packbuf_i_leaf_cells *cells) {
  const packbuf_node *node = &cells->column->node;
  const uint64_t end = (uint64_t)node->index + 1 + node->descendants;
  for (uint64_t child = (uint64_t)node->index + 1; child < end;) {
    packbuf_node leaf;
    unsigned which;
    packbuf_status status = packbuf_get_node(cells->column->view, (uint32_t)child, &leaf, cells->reader->error);
    if (status != PACKBUF_OK) return status;
    if (leaf.parent != node->index || leaf.descendants >= end - child)
      return packbuf_i_broken(
          cells->reader->error, PACKBUF_RULE_N2,
          packbuf_i_node_at(cells->column->view, (uint32_t)child) + (leaf.parent != node->index ? 0 : 4),
          PACKBUF_NOWHERE);
    which = packbuf_i_media_attribute_of(&leaf);
    if (which < PACKBUF_I_ATTRIBUTES && (cells->attributes >> which & 1) == 0) {
      status = packbuf_open_column(cells->column->view, (uint32_t)child, &cells->attribute[which], NULL);
      if (status == PACKBUF_OK && packbuf_i_media_attribute_of(&cells->attribute[which].node) == which)
        cells->attributes |= 1u << which;
      else if (status < PACKBUF_UNSUPPORTED_VERSION)
        return packbuf_i_broken(cells->reader->error, PACKBUF_RULE_B13,
                                packbuf_i_node_at(cells->column->view, (uint32_t)child) + 16, PACKBUF_NOWHERE);
    }
    child += 1 + (uint64_t)leaf.descendants;
  }
  return PACKBUF_OK;
}

/* One attribute of row `row` of its leaf; *value is null when there is none. */
static packbuf_status packbuf_i_media_attribute(packbuf_i_leaf_cells *cells, unsigned which, uint64_t row,
                                                packbuf_value *value) {
  packbuf_i_leaf_cells leaf;
  packbuf_status status;
  int state = 0;
  *value = packbuf_null();
  if ((cells->attributes >> which & 1) == 0) return PACKBUF_OK;
  status = packbuf_cell_state(&cells->attribute[which], row, &state, cells->reader->error);
  if (status != PACKBUF_OK || state != 1) return status;
  leaf.reader = cells->reader;
  leaf.column = &cells->attribute[which];
  leaf.left = 1;
  leaf.each = 0;
  leaf.shape = NULL;
  leaf.attributes = 0;
  memset(leaf.bulk, 0, sizeof leaf.bulk);
  if (which == PACKBUF_I_MIME || which == PACKBUF_I_MODE) return packbuf_i_utf8_read(&leaf, row, value);
  return packbuf_i_read_number(&leaf, row, row, 0, value);
}

/* Media over `size` bytes; its attributes stand in row `row` of their leaves. */
static packbuf_status packbuf_i_media_value(packbuf_i_leaf_cells *cells, uint64_t row, const void *data, size_t size,
                                            packbuf_value *value) {
  packbuf_value found[PACKBUF_I_ATTRIBUTES];
  packbuf_media *media;
  void *memory;
  packbuf_status status = PACKBUF_OK;
  for (unsigned i = 0; status == PACKBUF_OK && i < PACKBUF_I_ATTRIBUTES; i++)
    status = packbuf_i_media_attribute(cells, i, row, &found[i]);
  if (status == PACKBUF_OK) status = packbuf_i_take_one(cells, 0, sizeof *media, &memory);
  if (status != PACKBUF_OK) return status;
  media = (packbuf_media *)memory;
  *media = packbuf_media_of(data, size, NULL);
  for (unsigned i = 0; i < PACKBUF_I_ATTRIBUTES; i++) packbuf_i_set_attribute(media, i, &found[i]);
  *value = packbuf_media_value(media);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_media_read(packbuf_i_leaf_cells *cells, uint64_t row, packbuf_value *value) {
  const void *data = NULL;
  uint64_t first;
  size_t size;
  const packbuf_status status = packbuf_i_cell_text(cells, row, &first, &data, &size);
  return status != PACKBUF_OK ? status : packbuf_i_media_value(cells, row, data, size, value);
}

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
