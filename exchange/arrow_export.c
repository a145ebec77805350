/* exchange/arrow_export.c: the arrays of nodes, of the types that arrow_schema.c gave them: lent where they lie in the
 * packed buffer as Arrow has them, else copied into memory that the array owns.
 * May use: owned, lend, arrow_schema, arrow_gather. Must not know: how buffers are packed. */

/* ---- masks ---- */

/* Whether the cells of a node are not rows but the items of a media list. */
static int packbuf_i_of_items(const packbuf_view *view, const packbuf_node *node) {
  packbuf_node parent;
  return node->parent != PACKBUF_NO_NODE && packbuf_get_node(view, node->parent, &parent, NULL) == PACKBUF_OK &&
         parent.kind == PACKBUF_LEAF && parent.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
}

/* Buffer 0 of the array of a node; none where every cell is there. */
static packbuf_status packbuf_i_export_mask(const packbuf_export *what, const packbuf_node *node,
                                            struct ArrowArray *out, packbuf_error *error) {
  const packbuf_selection *selection = what->selection;
  packbuf_select_into into;
  packbuf_buffer mask;
  const uint64_t rows = (uint64_t)out->length, bytes = (rows + 7) / 8;
  packbuf_status status = packbuf_get_buffer(selection->view, node, PACKBUF_ROLE_VALIDITY, 0, &mask, error);
  if (status == PACKBUF_NOT_FOUND) return PACKBUF_OK;
  if (status != PACKBUF_OK) return status;
  out->null_count = -1;
  if (!(what->flags & PACKBUF_EXPORT_COPY) && mask.bytes && !selection->index && (selection->step == 1 || rows == 1) &&
      selection->first % 8 == 0 && !packbuf_i_of_items(selection->view, node) &&
      mask.count >= selection->first + rows) {
    out->buffers[0] = mask.bytes + selection->first / 8;
    return PACKBUF_OK;
  }
  memset(&into, 0, sizeof into);
  into.rows = rows;
  into.validity = (uint8_t *)packbuf_i_array_buffer(what, out, 0, bytes, 1, error);
  if (!into.validity) return PACKBUF_OUT_OF_MEMORY;
  return packbuf_select_copy(selection, node->index, &into, NULL, error);
}

/* ---- elements ---- */

static packbuf_status packbuf_i_bits_of_bools(const packbuf_export *what, const uint8_t *bytes, uint64_t count,
                                              struct ArrowArray *out, packbuf_error *error) {
  uint8_t *bits = (uint8_t *)packbuf_i_array_buffer(what, out, 1, (count + 7) / 8, 1, error);
  const uint64_t good = packbuf_i_first_not_bool(bytes, count);
  if (!bits) return PACKBUF_OUT_OF_MEMORY;
  if (good != count)
    return packbuf_i_fail(error, PACKBUF_BAD_BOOL, packbuf_status_text(PACKBUF_BAD_BOOL), PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  memset(bits, 0, (size_t)((count + 7) / 8));
  for (uint64_t i = 0; i < count; i++) bits[i / 8] = (uint8_t)(bits[i / 8] | (unsigned)(bytes[i] & 1) << i % 8);
  return PACKBUF_OK;
}

/* Where a column's elements go: the array of the elements, and the innermost one that has their buffer. */
typedef struct packbuf_i_arrow_elements {
  struct ArrowArray *array, *holder; /* differ for complex numbers, which are lists of two */
  packbuf_dtype dtype, as;           /* of the node; what the copy converts to */
  void *room;                        /* to copy to */
  packbuf_arena scratch;             /* of bools, which Arrow has as bits */
} packbuf_i_arrow_elements;

/* Starts an array of `count` elements of a node. */
static packbuf_status packbuf_i_begin_arrow_elements(const packbuf_export *what, const packbuf_node *node,
                                                     uint64_t count, struct ArrowArray *out,
                                                     packbuf_i_arrow_elements *e, packbuf_error *error) {
  const int complex = node->dtype.code == PACKBUF_DTYPE_COMPLEX;
  const char *time = packbuf_i_node_time(node);
  packbuf_status status = packbuf_i_make_array(what, count, complex ? 1 : 2, complex, out, error);
  e->array = e->holder = out;
  e->dtype = e->as = node->dtype;
  e->room = NULL;
  if (time && time[1] == 'd') e->as = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32);
  packbuf_arena_init(&e->scratch, what->allocator);
  if (status != PACKBUF_OK || !complex) return status;
  e->holder = out->children[0];
  if (count > INT64_MAX / 2)
    return packbuf_i_fail(error, PACKBUF_LIMIT, "more elements than Arrow counts", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  return packbuf_i_make_array(what, 2 * count, 2, 0, e->holder, error);
}

/* Memory for a copy of them. */
static packbuf_status packbuf_i_room_for_elements(const packbuf_export *what, packbuf_i_arrow_elements *e,
                                                  packbuf_error *error) {
  const uint64_t count = (uint64_t)e->array->length;
  e->room = e->dtype.code == PACKBUF_DTYPE_BOOL
                ? packbuf_i_array(&e->scratch, count, 1)
                : packbuf_i_array_buffer(what, e->holder, 1, count, e->as.bits / 8u, error);
  return e->room ? PACKBUF_OK : packbuf_i_no_memory(error);
}

/* Elements that are lent, or were copied to the room. */
static packbuf_status packbuf_i_end_elements(const packbuf_export *what, packbuf_i_arrow_elements *e,
                                             const uint8_t *lent, packbuf_error *error) {
  const uint8_t *bytes = e->room ? (const uint8_t *)e->room : lent;
  if (e->dtype.code == PACKBUF_DTYPE_BOOL)
    return packbuf_i_bits_of_bools(what, bytes, (uint64_t)e->array->length, e->array, error);
  e->holder->buffers[1] = bytes;
  return PACKBUF_OK;
}

/* Whether Arrow has a node's elements as they are stored: bools are bits there, days have 32. */
static int packbuf_i_as_stored(const packbuf_node *node) {
  const char *time = packbuf_i_node_time(node);
  return node->dtype.code != PACKBUF_DTYPE_BOOL && !(time && time[1] == 'd');
}

static packbuf_select_into packbuf_i_into_elements(const packbuf_i_arrow_elements *e) {
  packbuf_select_into into;
  memset(&into, 0, sizeof into);
  into.data = e->room;
  into.data_capacity = (uint64_t)e->array->length * (e->as.bits / 8u);
  if (e->as.bits != e->dtype.bits) into.dtype = e->as;
  return into;
}

/* ---- numbers ---- */

static packbuf_status packbuf_i_export_dense(const packbuf_export *what, const packbuf_node *node,
                                             struct ArrowArray *out, packbuf_error *error) {
  packbuf_selected_size size;
  packbuf_i_arrow_elements e;
  packbuf_i_lent lent;
  struct ArrowArray *elements = out;
  packbuf_status status = packbuf_select_size(what->selection, node->index, &size, error);
  if (status != PACKBUF_OK) return status;
  if (node->rank) {
    status = packbuf_i_make_array(what, size.rows, 1, 1, out, error);
    if (status != PACKBUF_OK) return status;
    elements = out->children[0];
  }
  status = packbuf_i_begin_arrow_elements(what, node, size.elements, elements, &e, error);
  if (status == PACKBUF_OK) status = packbuf_i_export_mask(what, node, out, error);
  if (status == PACKBUF_OK &&
      !(packbuf_i_as_stored(node) && packbuf_i_lend(what, node->index, 1, &lent) == PACKBUF_OK)) {
    status = packbuf_i_room_for_elements(what, &e, error);
    if (status == PACKBUF_OK) {
      const packbuf_select_into into = packbuf_i_into_elements(&e);
      status = packbuf_select_copy(what->selection, node->index, &into, NULL, error);
    }
  }
  if (status == PACKBUF_OK) status = packbuf_i_end_elements(what, &e, e.room ? NULL : lent.data, error);
  packbuf_arena_free(&e.scratch);
  return status;
}

/* Lent offsets that consumers may trust. */
static packbuf_status packbuf_i_lend_rows(const packbuf_export *what, const packbuf_node *node, packbuf_i_lent *lent) {
  const packbuf_status status = packbuf_i_lend(what, node->index, 0, lent);
  if (status != PACKBUF_OK || (what->flags & PACKBUF_EXPORT_VERIFIED)) return status;
  return packbuf_i_lent_ascends(lent, what->selection->rows) ? PACKBUF_OK : PACKBUF_BAD_OFFSETS;
}

/* The shapes of ragged cells of rank 2 and more, as lists of their dimensions. */
static packbuf_status packbuf_i_export_shapes(const packbuf_export *what, const packbuf_node *node, uint64_t rows,
                                              struct ArrowArray *out, packbuf_error *error) {
  packbuf_select_into into;
  packbuf_arena scratch;
  int64_t *offsets, *sizes;
  uint64_t total = 0;
  packbuf_status status = packbuf_i_make_array(what, rows, 2, 1, out, error);
  if (status != PACKBUF_OK) return status;
  memset(&into, 0, sizeof into);
  packbuf_arena_init(&scratch, what->allocator);
  scratch.limit = what->selection->view->limits.decoded_bytes;
  into.rows = rows;
  into.ndims = (uint8_t *)packbuf_i_array(&scratch, rows, 1);
  if (!into.ndims) status = packbuf_i_no_memory(error);
  for (unsigned d = 0; status == PACKBUF_OK && d < node->rank; d++) {
    into.shape[d] = (uint64_t *)packbuf_i_array(&scratch, rows, 8);
    if (!into.shape[d]) status = packbuf_i_no_memory(error);
  }
  if (status == PACKBUF_OK) status = packbuf_select_copy(what->selection, node->index, &into, NULL, error);
  for (uint64_t i = 0; status == PACKBUF_OK && i < rows; i++) total += into.ndims[i];
  if (status == PACKBUF_OK) status = packbuf_i_make_array(what, total, 2, 0, out->children[0], error);
  if (status == PACKBUF_OK) {
    offsets = (int64_t *)packbuf_i_array_buffer(what, out, 1, rows + 1, 8, error);
    sizes = (int64_t *)packbuf_i_array_buffer(what, out->children[0], 1, total, 8, error);
    if (!offsets || !sizes) status = PACKBUF_OUT_OF_MEMORY;
    for (uint64_t i = 0, at = 0; status == PACKBUF_OK && i <= rows; i++) {
      offsets[i] = (int64_t)at;
      for (unsigned d = 0; i < rows && d < into.ndims[i] && d < node->rank; d++)
        sizes[at++] = (int64_t)into.shape[d][i];
    }
  }
  packbuf_arena_free(&scratch);
  return status;
}

/* Lists of numbers: *out has offsets, its child the elements. */
static packbuf_status packbuf_i_export_lists(const packbuf_export *what, const packbuf_node *node, int masked,
                                             struct ArrowArray *out, packbuf_error *error) {
  packbuf_selected_size size;
  packbuf_i_arrow_elements e;
  packbuf_i_lent lent;
  int lends;
  packbuf_status status = packbuf_select_size(what->selection, node->index, &size, error);
  if (status == PACKBUF_OK) status = packbuf_i_make_array(what, size.rows, 2, 1, out, error);
  if (status != PACKBUF_OK) return status;
  lends = packbuf_i_as_stored(node) && packbuf_i_lend_rows(what, node, &lent) == PACKBUF_OK;
  /* lent offsets count from the first element of the data, so that the child begins there */
  status = packbuf_i_begin_arrow_elements(what, node, lends ? lent.first + lent.count : size.elements, out->children[0],
                                          &e, error);
  if (status == PACKBUF_OK && masked) status = packbuf_i_export_mask(what, node, out, error);
  if (status == PACKBUF_OK && lends) {
    out->buffers[1] = lent.offsets;
  } else if (status == PACKBUF_OK) {
    void *offsets = packbuf_i_array_buffer(what, out, 1, size.rows + 1, 8, error);
    status = offsets ? packbuf_i_room_for_elements(what, &e, error) : PACKBUF_OUT_OF_MEMORY;
    if (status == PACKBUF_OK) {
      packbuf_select_into into = packbuf_i_into_elements(&e);
      into.rows = size.rows;
      into.offsets = offsets;
      status = packbuf_select_copy(what->selection, node->index, &into, NULL, error);
    }
  }
  if (status == PACKBUF_OK) status = packbuf_i_end_elements(what, &e, e.room ? NULL : lent.data, error);
  packbuf_arena_free(&e.scratch);
  return status;
}

static packbuf_status packbuf_i_export_ragged(const packbuf_export *what, const packbuf_node *node,
                                              struct ArrowArray *out, packbuf_error *error) {
  packbuf_selected_size size;
  packbuf_status status;
  if (node->rank <= 1) return packbuf_i_export_lists(what, node, 1, out, error);
  status = packbuf_select_size(what->selection, node->index, &size, error);
  if (status == PACKBUF_OK) status = packbuf_i_make_array(what, size.rows, 1, 2, out, error);
  if (status == PACKBUF_OK) status = packbuf_i_export_mask(what, node, out, error);
  if (status == PACKBUF_OK) status = packbuf_i_export_lists(what, node, 0, out->children[0], error);
  return status == PACKBUF_OK ? packbuf_i_export_shapes(what, node, size.rows, out->children[1], error) : status;
}

/* ---- text and bytes ---- */

/* Whether each cell is UTF-8: all together are, and none begins within a character. */
static packbuf_status packbuf_i_check_arrow_text(const struct ArrowArray *array, packbuf_error *error) {
  const uint8_t *data = (const uint8_t *)array->buffers[2];
  const uint64_t first = (uint64_t)packbuf_i_array_offset(array, 0);
  const uint64_t end = (uint64_t)packbuf_i_array_offset(array, (uint64_t)array->length);
  int good;
  if (first == end) return PACKBUF_OK;
  good = packbuf_i_utf8_valid(data + first, (size_t)(end - first)) == end - first;
  for (uint64_t i = 0; good && i < (uint64_t)array->length; i++) {
    const uint64_t at = (uint64_t)packbuf_i_array_offset(array, i);
    good = at >= end || (data[at] & 0xC0) != 0x80;
  }
  return good ? PACKBUF_OK
              : packbuf_i_fail(error, PACKBUF_BAD_UTF8, packbuf_status_text(PACKBUF_BAD_UTF8), PACKBUF_NOWHERE,
                               PACKBUF_NOWHERE);
}

/* Cells of bytes. A media list has two levels of offsets: `list` is the array of the lists, NULL for others. */
static packbuf_status packbuf_i_export_bytes(const packbuf_export *what, const packbuf_node *node, int text,
                                             struct ArrowArray *list, struct ArrowArray *out, packbuf_error *error) {
  packbuf_selected_size size, copied;
  packbuf_select_into into;
  packbuf_i_lent lent;
  packbuf_status status = packbuf_select_size(what->selection, node->index, &size, error);
  if (status == PACKBUF_OK) status = packbuf_i_make_array(what, list ? size.items : size.rows, 3, 0, out, error);
  if (status != PACKBUF_OK) return status;
  if (!list && packbuf_i_lend_rows(what, node, &lent) == PACKBUF_OK) {
    out->buffers[1] = lent.offsets;
    out->buffers[2] = lent.data;
  } else {
    memset(&into, 0, sizeof into);
    into.rows = size.rows;
    into.items = size.items;
    into.offsets = packbuf_i_array_buffer(what, out, 1, (uint64_t)out->length + 1, 8, error);
    into.data = packbuf_i_array_buffer(what, out, 2, size.data_bytes, 1, error);
    into.data_capacity = size.data_bytes;
    if (list) into.item_offsets = packbuf_i_array_buffer(what, list, 1, size.rows + 1, 8, error);
    if (!into.offsets || !into.data || (list && !into.item_offsets)) return PACKBUF_OUT_OF_MEMORY;
    status = packbuf_select_copy(what->selection, node->index, &into, &copied, error);
    if (status == PACKBUF_OK && (copied.rows != size.rows || copied.items != size.items)) /* rewritten meanwhile */
      status = packbuf_i_broken(error, PACKBUF_RULE_I7, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  }
  if (status == PACKBUF_OK && text && !(what->flags & PACKBUF_EXPORT_VERIFIED))
    status = packbuf_i_check_arrow_text(out, error);
  return status;
}

static packbuf_status packbuf_i_export_node(const packbuf_export *what, const packbuf_node *node,
                                            const struct ArrowSchema *type, struct ArrowArray *out,
                                            packbuf_error *error);

static packbuf_status packbuf_i_export_children(const packbuf_export *what, const packbuf_node *parent,
                                                const struct ArrowSchema *type, int64_t at, struct ArrowArray *out,
                                                packbuf_error *error) {
  packbuf_i_below below = packbuf_i_chosen_below(what->selection, parent);
  packbuf_node child;
  packbuf_status status;
  while ((status = packbuf_i_next_below(&below, 0, &child, error)) == PACKBUF_OK) {
    status = packbuf_i_export_node(what, &child, type->children[at], out->children[at], error);
    at++;
    if (status != PACKBUF_OK) return status;
  }
  return status == PACKBUF_NOT_FOUND ? PACKBUF_OK : status;
}

/* Media, or the items of a media list: bytes, or structs of bytes and attributes. */
static packbuf_status packbuf_i_export_media(const packbuf_export *what, const packbuf_node *node,
                                             const struct ArrowSchema *type, struct ArrowArray *list,
                                             struct ArrowArray *out, packbuf_error *error) {
  packbuf_selected_size size;
  packbuf_status status;
  if (!type->n_children) return packbuf_i_export_bytes(what, node, 0, list, out, error);
  status = packbuf_select_size(what->selection, node->index, &size, error);
  if (status == PACKBUF_OK)
    status = packbuf_i_make_array(what, list ? size.items : size.rows, 1, type->n_children, out, error);
  if (status == PACKBUF_OK) status = packbuf_i_export_bytes(what, node, 0, list, out->children[0], error);
  if (status == PACKBUF_OK) status = packbuf_i_export_children(what, node, type, 1, out, error);
  for (int64_t i = 1; status == PACKBUF_OK && i < out->n_children; i++) /* readers would look beyond shorter ones */
    if (out->children[i]->length != out->length)
      status = packbuf_i_broken(error, PACKBUF_RULE_I8, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  return status;
}

static packbuf_status packbuf_i_export_leaf(const packbuf_export *what, const packbuf_node *node,
                                            const struct ArrowSchema *type, struct ArrowArray *out,
                                            packbuf_error *error) {
  packbuf_selected_size size;
  packbuf_status status;
  switch (node->codec) {
    case PACKBUF_CODEC_NULL:
      status = packbuf_select_size(what->selection, node->index, &size, error);
      if (status == PACKBUF_OK) status = packbuf_i_make_array(what, size.rows, 0, 0, out, error);
      out->null_count = out->length;
      return status;
    case PACKBUF_CODEC_NDARRAY: return packbuf_i_export_dense(what, node, out, error);
    case PACKBUF_CODEC_RAGGED_TENSOR:
    case PACKBUF_CODEC_TYPED_RAGGED: return packbuf_i_export_ragged(what, node, out, error);
    case PACKBUF_CODEC_MEDIA_LIST_RAGGED:
      status = packbuf_select_size(what->selection, node->index, &size, error);
      if (status == PACKBUF_OK) status = packbuf_i_make_array(what, size.rows, 2, 1, out, error);
      if (status == PACKBUF_OK)
        status = packbuf_i_export_media(what, node, type->children[0], out, out->children[0], error);
      break;
    case PACKBUF_CODEC_MEDIA_BYTES: status = packbuf_i_export_media(what, node, type, NULL, out, error); break;
    default: status = packbuf_i_export_bytes(what, node, type->format[0] == 'U', NULL, out, error); break;
  }
  return status == PACKBUF_OK ? packbuf_i_export_mask(what, node, out, error) : status;
}

/* ---- lists that expansion took apart ---- */

/* The lengths of the chosen rows, each at most `most`. */
static packbuf_status packbuf_i_list_lengths(const packbuf_export *what, const packbuf_node *node, uint64_t rows,
                                             uint64_t most, packbuf_arena *arena, uint64_t **lengths,
                                             packbuf_error *error) {
  packbuf_select_into into;
  packbuf_status status;
  memset(&into, 0, sizeof into);
  into.rows = rows;
  into.lengths = (uint64_t *)packbuf_i_array(arena, rows, 8);
  *lengths = into.lengths;
  if (!into.lengths) return packbuf_i_no_memory(error);
  memset(into.lengths, 0, (size_t)rows * 8);
  status = packbuf_select_copy(what->selection, node->index, &into, NULL, error);
  for (uint64_t i = 0; status == PACKBUF_OK && i < rows; i++)
    if (into.lengths[i] > most) status = packbuf_i_broken(error, PACKBUF_RULE_I9, PACKBUF_NOWHERE, i);
  return status;
}

/* Offsets of lists, and where each item lies: item k of row i is element i of source k. */
static packbuf_status packbuf_i_spread_lists(const packbuf_export *what, const uint64_t *lengths, packbuf_arena *arena,
                                             struct ArrowArray *out, packbuf_i_gathering *g) {
  const uint64_t rows = (uint64_t)out->length;
  int64_t *offsets = (int64_t *)packbuf_i_array_buffer(what, out, 1, rows + 1, 8, g->error);
  packbuf_i_array_stretch *stretches;
  uint64_t at = 0;
  if (!offsets) return PACKBUF_OUT_OF_MEMORY;
  offsets[0] = 0;
  g->total = 0;
  for (uint64_t i = 0; i < rows; i++) {
    g->total += lengths[i]; /* rows below 2^48, lengths at most the number of nodes */
    offsets[i + 1] = (int64_t)g->total;
  }
  stretches = (packbuf_i_array_stretch *)packbuf_i_array(arena, g->total, sizeof *stretches);
  if (!stretches) return packbuf_i_no_memory(g->error);
  for (uint64_t i = 0; i < rows; i++) {
    for (uint64_t k = 0; k < lengths[i]; k++, at++) {
      stretches[at].from = (uint32_t)k;
      stretches[at].first = i;
      stretches[at].count = 1;
    }
  }
  g->stretches = stretches;
  g->stretch_count = g->total;
  return PACKBUF_OK;
}

/* The arrays of a list's items, by place; those that are always null, or not chosen, stay NULL. */
static packbuf_status packbuf_i_export_items(const packbuf_export *what, const packbuf_node *node,
                                             const struct ArrowSchema *type, struct ArrowArray *items,
                                             const struct ArrowArray **sources, packbuf_error *error) {
  packbuf_i_below below = packbuf_i_chosen_below(what->selection, node);
  packbuf_node child;
  packbuf_status status = PACKBUF_OK;
  for (uint32_t place = 0; status == PACKBUF_OK; place++) {
    status = packbuf_i_next_below(&below, 1, &child, error);
    if (status != PACKBUF_OK || !what->selection->flags[child.index] ||
        (child.kind == PACKBUF_LEAF && child.codec == PACKBUF_CODEC_NULL))
      continue;
    status = packbuf_i_export_node(what, &child, type, &items[place], error);
    sources[place] = &items[place];
  }
  return status == PACKBUF_NOT_FOUND ? PACKBUF_OK : status;
}

static packbuf_status packbuf_i_export_list(const packbuf_export *what, const packbuf_node *node,
                                            const struct ArrowSchema *type, uint32_t count, packbuf_arena *arena,
                                            struct ArrowArray *out, packbuf_error *error) {
  struct ArrowArray *items = (struct ArrowArray *)packbuf_i_array(arena, count, sizeof *items);
  const struct ArrowArray **sources = (const struct ArrowArray **)packbuf_i_array(arena, count, sizeof *sources);
  packbuf_i_gathering g;
  uint64_t *lengths;
  packbuf_status status;
  if (!items || !sources) return packbuf_i_no_memory(error);
  memset(items, 0, count * sizeof *items);
  for (uint32_t i = 0; i < count; i++) sources[i] = NULL;
  memset(&g, 0, sizeof g);
  g.what = what;
  g.sources = sources;
  g.source_count = count;
  g.arena = arena;
  g.error = error;
  status = packbuf_i_list_lengths(what, node, (uint64_t)out->length, count, arena, &lengths, error);
  if (status == PACKBUF_OK) status = packbuf_i_export_items(what, node, type->children[0], items, sources, error);
  if (status == PACKBUF_OK) status = packbuf_i_spread_lists(what, lengths, arena, out, &g);
  if (status == PACKBUF_OK) status = packbuf_i_gather_arrow(&g, type->children[0], out->children[0]);
  for (uint32_t i = 0; i < count; i++)
    if (items[i].release) items[i].release(&items[i]);
  return status;
}

/* Items by place, and the length. */
static packbuf_status packbuf_i_export_places(const packbuf_export *what, const packbuf_node *node,
                                              const struct ArrowSchema *type, uint32_t count, packbuf_arena *arena,
                                              struct ArrowArray *out, packbuf_error *error) {
  struct ArrowArray *length = out->children[out->n_children - 1];
  const uint64_t rows = (uint64_t)out->length;
  uint64_t *lengths;
  int64_t *data;
  packbuf_status status = packbuf_i_export_children(what, node, type, 0, out, error);
  if (status == PACKBUF_OK) status = packbuf_i_make_array(what, rows, 2, 0, length, error);
  if (status == PACKBUF_OK) status = packbuf_i_list_lengths(what, node, rows, count, arena, &lengths, error);
  if (status != PACKBUF_OK) return status;
  data = (int64_t *)packbuf_i_array_buffer(what, length, 1, rows, 8, error);
  if (!data) return PACKBUF_OUT_OF_MEMORY;
  for (uint64_t i = 0; i < rows; i++) data[i] = (int64_t)lengths[i];
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_export_inner(const packbuf_export *what, const packbuf_node *node,
                                             const struct ArrowSchema *type, struct ArrowArray *out,
                                             packbuf_error *error) {
  const int list = node->kind == PACKBUF_NODE_LIST, one = list && type->format[1] == 'L';
  packbuf_arena arena;
  uint32_t count = 0;
  packbuf_status status = packbuf_i_make_array(what, what->selection->rows, one ? 2 : 1, type->n_children, out, error);
  if (status == PACKBUF_OK) status = packbuf_i_export_mask(what, node, out, error);
  if (status == PACKBUF_OK && !list) return packbuf_i_export_children(what, node, type, 0, out, error);
  if (status == PACKBUF_OK)
    status = packbuf_i_count_below(packbuf_i_chosen_below(what->selection, node), 1, &count, error);
  if (status != PACKBUF_OK) return status;
  packbuf_arena_init(&arena, what->allocator);
  arena.limit = what->selection->view->limits.decoded_bytes;
  status = one ? packbuf_i_export_list(what, node, type, count, &arena, out, error)
               : packbuf_i_export_places(what, node, type, count, &arena, out, error);
  packbuf_arena_free(&arena);
  return status;
}

static packbuf_status packbuf_i_export_node(const packbuf_export *what, const packbuf_node *node,
                                            const struct ArrowSchema *type, struct ArrowArray *out,
                                            packbuf_error *error) {
  const packbuf_status status = node->kind == PACKBUF_LEAF ? packbuf_i_export_leaf(what, node, type, out, error)
                                                           : packbuf_i_export_inner(what, node, type, out, error);
  return packbuf_i_at_node(what, node->index, status, error);
}

PACKBUF_API packbuf_status packbuf_arrow_array(const packbuf_export *what, struct ArrowArray *out,
                                               packbuf_error *error) {
  struct ArrowSchema type;
  packbuf_node node;
  packbuf_status status = packbuf_i_check_export(what, out, error);
  if (status != PACKBUF_OK) return status;
  memset(out, 0, sizeof *out);
  status = packbuf_arrow_schema(what, &type, error);
  if (status != PACKBUF_OK) return status;
  if (what->node != PACKBUF_NO_NODE) {
    status = packbuf_get_node(what->selection->view, what->node, &node, error);
    if (status == PACKBUF_OK) status = packbuf_i_export_node(what, &node, &type, out, error);
  } else {
    status = packbuf_i_make_array(what, what->selection->rows, 1, type.n_children, out, error);
    if (status == PACKBUF_OK) status = packbuf_i_export_children(what, NULL, &type, 0, out, error);
  }
  type.release(&type);
  if (status != PACKBUF_OK && out->release) out->release(out);
  return status;
}
