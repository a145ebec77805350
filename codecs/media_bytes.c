/* codecs/media_bytes.c: the attribute leaves of media (section 9 of the spec), packing side, for media_bytes and
 * media_list_ragged. The bytes go as in codecs/bytes_ragged.c.
 * May use: columns. Must not know: the layout. */

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
  packbuf_i_node *leaf = (packbuf_i_node *)packbuf_arena_alloc(arena, sizeof *leaf, sizeof(void *));
  packbuf_value *values =
      count > SIZE_MAX / sizeof *values
          ? NULL
          : (packbuf_value *)packbuf_arena_alloc(arena, (size_t)count * sizeof *values, sizeof(void *));
  uint64_t n = 0;
  if (!leaf || !values) return 0;
  memset(leaf, 0, sizeof *leaf);
  for (uint64_t row = 0; row < media->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&media->cells, row);
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
  uint64_t items = 0, bytes = 0, count = node->rows;
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) {
    for (uint64_t row = 0; row < node->rows; row++) {
      const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
      for (size_t i = 0; cell->kind == PACKBUF_LIST && i < cell->as.list.count; i++, items++) {
        const packbuf_value *item = &cell->as.list.items[i];
        if (items == 0) node->form = item->kind == PACKBUF_MEDIA ? PACKBUF_FORM_MEDIA : PACKBUF_FORM_BYTES;
        else if ((item->kind == PACKBUF_MEDIA ? PACKBUF_FORM_MEDIA : PACKBUF_FORM_BYTES) != node->form) node->typed = 1;
        bytes += packbuf_i_item_size(item);
      }
    }
    node->items = count = items;
    node->elements = bytes;
  }
  for (unsigned attribute = 0; attribute < PACKBUF_I_ATTRIBUTES; attribute++)
    if (!packbuf_i_hang_attribute(node, attribute, count, arena)) return 0;
  return 1;
}
