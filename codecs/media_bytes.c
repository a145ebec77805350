/* codecs/media_bytes.c: media: bytes (which go as in codecs/bytes_ragged.c) with attributes, which are ordinary child
 * leaves (section 9 of the spec): one row a cell here, one row an item under media_list_ragged.
 * May use: columns; access, number, cells, leaf, codecs/numbers.c, codecs/text.c. Must not know: the layout, what an
 * image is. */

/* ---- packing: the attribute leaves, for media_list_ragged too ---- */

/* An attribute of a cell or item; null when it has none, or is no media. */
static packbuf_value packbuf_i_cell_attribute(const packbuf_value *cell, unsigned attribute) {
  return cell->kind == PACKBUF_MEDIA ? packbuf_i_attribute_of(cell->as.media, attribute) : packbuf_null();
}

static void packbuf_i_type_attribute(packbuf_i_node *leaf, unsigned attribute) {
  leaf->name = packbuf_i_attribute_names[attribute];
  leaf->name_size = strlen(leaf->name);
  leaf->kind = PACKBUF_LEAF;
  leaf->reason = "an attribute of media";
  if (attribute == PACKBUF_I_MIME || attribute == PACKBUF_I_MODE) {
    leaf->codec = PACKBUF_CODEC_UTF8_RAGGED;
    leaf->dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  } else {
    leaf->codec = PACKBUF_CODEC_NDARRAY;
    leaf->dtype = packbuf_dtype_of(attribute == PACKBUF_I_RATE ? PACKBUF_DTYPE_FLOAT : PACKBUF_DTYPE_INT, 64);
  }
}

/* The column of one attribute over the cells (or items) of a media leaf: hung below it when any has the attribute. 0:
 * no memory. */
static int packbuf_i_hang_attribute(packbuf_i_node *media, unsigned attribute, uint64_t count, packbuf_arena *arena) {
  packbuf_i_node *leaf = (packbuf_i_node *)packbuf_arena_alloc(arena, sizeof *leaf, 8);
  packbuf_value *values = count > SIZE_MAX / sizeof *values
                              ? NULL
                              : (packbuf_value *)packbuf_arena_alloc(arena, (size_t)count * sizeof *values, 8);
  uint64_t n = 0;
  if (!leaf || !values) return 0;
  memset(leaf, 0, sizeof *leaf);
  for (uint64_t row = 0; row < media->stored->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&media->stored->cells, row);
    if (media->codec == PACKBUF_CODEC_MEDIA_BYTES) values[n++] = packbuf_i_cell_attribute(cell, attribute);
    else
      for (size_t i = 0; cell->kind == PACKBUF_LIST && i < cell->as.list.count; i++)
        values[n++] = packbuf_i_cell_attribute(&cell->as.list.items[i], attribute);
  }
  for (uint64_t i = 0; i < n; i++) leaf->nulls += values[i].kind == PACKBUF_NULL;
  if (leaf->nulls == n) return 1; /* no cell has it */
  packbuf_i_type_attribute(leaf, attribute);
  leaf->parent = media;
  leaf->scope = media->scope;
  leaf->rows = n;
  leaf->cells.values = values;
  leaf->cells.count = n;
  if (media->last_child) media->last_child->next = leaf;
  else media->first_child = leaf;
  media->last_child = leaf;
  return 1;
}

/* Prepares a media leaf: counts the items and their bytes, hangs the attribute leaves. 0: no memory. */
static int packbuf_i_prepare_media(packbuf_i_node *node, packbuf_arena *arena) {
  const packbuf_i_node *stored = node->stored;
  uint64_t items = 0, bytes = 0, count = node->rows;
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) {
    for (uint64_t row = 0; row < stored->rows; row++) {
      const packbuf_value *cell = packbuf_i_cell(&stored->cells, row);
      for (size_t i = 0; cell->kind == PACKBUF_LIST && i < cell->as.list.count; i++, items++) {
        const packbuf_value *item = &cell->as.list.items[i];
        if (items == 0) node->form = item->kind == PACKBUF_MEDIA ? PACKBUF_FORM_MEDIA : PACKBUF_FORM_BYTES;
        else if ((item->kind == PACKBUF_MEDIA ? PACKBUF_FORM_MEDIA : PACKBUF_FORM_BYTES) != node->form) node->typed = 1;
        bytes += packbuf_i_item_size(item);
      }
    }
    node->stored->items = count = items;
    node->stored->elements = bytes;
    node->stored->form = node->form;
  }
  for (unsigned attribute = 0; attribute < PACKBUF_I_ATTRIBUTES; attribute++)
    if (!packbuf_i_hang_attribute(node, attribute, count, arena)) return 0;
  return 1;
}

/* ---- reading ---- */

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
  if (status == PACKBUF_OK && state == 1)
    status = packbuf_i_stored_row(&cells->attribute[which], row, &row, cells->reader->error);
  if (status != PACKBUF_OK || state != 1) return status;
  leaf.reader = cells->reader;
  leaf.row = cells->row;
  leaf.column = &cells->attribute[which];
  leaf.left = 1;
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
  return status != PACKBUF_OK ? status : packbuf_i_media_value(cells, cells->row, data, size, value);
}
