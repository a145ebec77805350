/* core/concat.c: from a join to a batch that writes all of it as one packed buffer. Columns of one type are described
 * by pointers into the fragments; the rest is read and becomes values again, whose types inference joins.
 * May use: base, arena, keys (hashes), access, find, cells, pieces, read, join, batch. Must not know: the layout. */

typedef struct packbuf_i_concat {
  const packbuf_join *join;
  packbuf_batch *batch;
  packbuf_arena *arena;
  packbuf_error *error;
  packbuf_schema *schemas; /* of leaves that are added as values, and have to be what they were */
  size_t schema_count, schema_room;
  packbuf_i_pair **pairs; /* open-addressing table of the metadata that is added */
  uint64_t pair_mask;
  uint64_t
      made; /* bytes of cells put together from two pieces, and of what describes rows; under limits.decoded_bytes */
} packbuf_i_concat;

/* Memory for what a fragment asks for: D9 when all of it passes limits.decoded_bytes. */
static packbuf_status packbuf_i_concat_make(packbuf_i_concat *c, const packbuf_view *view, uint64_t count, size_t size,
                                            void **out) {
  uint64_t bytes;
  *out = NULL;
  if (!packbuf_i_mul(count, size, &bytes) || c->made > view->limits.decoded_bytes ||
      bytes > view->limits.decoded_bytes - c->made)
    return packbuf_i_broken(c->error, PACKBUF_RULE_D9, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  c->made += bytes;
  *out = packbuf_i_array(c->arena, count, size);
  return *out ? PACKBUF_OK : packbuf_i_no_memory(c->error);
}

/* ---- columns of one type, without values ---- */

/* Opens the column of a part; the error names the fragment. type (NULL: any): what its node was, by which the field is
 * described; a head that was rewritten meanwhile must not pass for it. */
static packbuf_status packbuf_i_concat_column(const packbuf_i_concat *c, const packbuf_join_part *part,
                                              const packbuf_node *type, packbuf_column *column) {
  packbuf_status status = packbuf_open_column(&c->join->views[part->fragment], part->node, column, c->error);
  if (status == PACKBUF_OK && type && packbuf_i_type_differs(type, &column->node) != PACKBUF_I_SCHEMA_MEMBERS)
    status = packbuf_i_fail(c->error, PACKBUF_HEAD_CHECKSUM, "the head has changed since it was opened",
                            PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (status == PACKBUF_OK && column->node.rows != part->rows)
    status =
        packbuf_i_broken(c->error, PACKBUF_RULE_N9, packbuf_i_node_at(column->view, part->node) + 48, PACKBUF_NOWHERE);
  return packbuf_i_of_fragment(c->error, status, part->fragment);
}

/* Whether a field can be taken over as arrays or text: cells of one form, each a value or null. */
static packbuf_status packbuf_i_concat_fast(const packbuf_i_concat *c, const packbuf_join_field *field, int *fast) {
  *fast = 0;
  for (uint32_t i = 0; i < field->part_count; i++) {
    packbuf_column column;
    packbuf_status status = packbuf_i_concat_column(c, &field->parts[i], NULL, &column);
    if (status != PACKBUF_OK) return status;
    if (!field->parts[i].rows && field->part_count > 1) continue;
    if (column.node.kind != PACKBUF_LEAF || packbuf_i_there(&column.missing) || packbuf_i_there(&column.types))
      return PACKBUF_OK;
    if ((column.node.codec < PACKBUF_CODEC_NDARRAY || column.node.codec > PACKBUF_CODEC_BYTES_RAGGED) &&
        column.node.codec != PACKBUF_CODEC_UTF8_RAGGED)
      return PACKBUF_OK;
  }
  *fast = field->same;
  return PACKBUF_OK;
}

/* D9: what one call may take for an untrusted packed buffer. */
static packbuf_status packbuf_i_concat_too_much(const packbuf_i_concat *c, const packbuf_column *column) {
  return packbuf_i_broken(c->error, PACKBUF_RULE_D9, packbuf_i_buffer_at(column->view, column->data.index) + 16,
                          PACKBUF_NOWHERE);
}

/* Whether the data of a part lie in memory as a writer would push them. */
static int packbuf_i_concat_in_place(const packbuf_column *column) {
  return column->data.bytes && (packbuf_i_element_bits(column->data.dtype) == 8 || !packbuf_i_big_endian());
}

/* All elements of a part in native order: in place, or a copy in the arena. */
static packbuf_status packbuf_i_concat_elements(const packbuf_i_concat *c, const packbuf_column *column,
                                                const uint8_t **out) {
  const uint64_t element = packbuf_i_element_bits(column->data.dtype) / 8;
  uint64_t size;
  uint8_t *copy;
  *out = column->data.bytes;
  if (packbuf_i_concat_in_place(column)) return PACKBUF_OK;
  if (!packbuf_i_mul(column->data.count, element, &size) || size > column->view->limits.decoded_bytes)
    return packbuf_i_concat_too_much(c, column);
  copy = (uint8_t *)packbuf_i_array(c->arena, size, 1);
  if (!copy) return packbuf_i_no_memory(c->error);
  if (!packbuf_i_copy_native(&column->data, 0, (size_t)column->data.count, copy))
    return packbuf_i_not_fetched(&column->data, 0, size, PACKBUF_NOWHERE, c->error);
  *out = copy;
  return PACKBUF_OK;
}

/* The rows of a dense column that shares them, `each` bytes a row. */
static packbuf_status packbuf_i_concat_shared(const packbuf_column *column, uint64_t each, uint8_t *to,
                                              packbuf_error *error) {
  const uint64_t element = packbuf_i_element_bits(column->data.dtype) / 8, elements = each / element;
  for (uint64_t row = 0; row < column->node.rows; row++, to += each) {
    uint64_t first = 0, count = 0;
    const packbuf_status status = packbuf_cell_extent(column, row, &first, &count, error);
    if (status != PACKBUF_OK) return status;
    if (count != elements) memset(to, 0, (size_t)each);
    else if (!packbuf_i_copy_native(&column->data, first, (size_t)count, to))
      return packbuf_i_not_fetched(&column->data, first * element, each, row, error);
  }
  return PACKBUF_OK;
}

/* A dense column: the parts side by side in the arena, with a validity bitmap where one has null cells. */
static packbuf_status packbuf_i_concat_dense(packbuf_i_concat *c, packbuf_i_field *field, const packbuf_node *type,
                                             const packbuf_join_part *parts, uint32_t count) {
  uint64_t each = 0, size = 0, at = 0, bytes;
  uint8_t *data = NULL, *validity = NULL;
  for (uint32_t i = 0; i < count; i++) {
    packbuf_column column;
    packbuf_status status = packbuf_i_concat_column(c, &parts[i], type, &column);
    if (status != PACKBUF_OK) return status;
    if (!data) {
      const packbuf_node *node = &column.node;
      if (!packbuf_i_product(node->shape, node->rank, &each) ||
          !packbuf_i_mul(each, packbuf_i_element_bits(node->dtype) / 8, &each) ||
          !packbuf_i_mul(each, c->join->rows, &size) || size > column.view->limits.decoded_bytes)
        return packbuf_i_concat_too_much(c, &column);
      data = (uint8_t *)packbuf_i_array(c->arena, size, 1);
      if (!data) return packbuf_i_no_memory(c->error);
      field->shape[0] = c->join->rows;
      for (unsigned d = 0; d < node->rank; d++) field->shape[d + 1] = node->shape[d];
    }
    if (packbuf_i_there(&column.validity) && !validity) {
      void *memory;
      status = packbuf_i_concat_make(c, column.view, c->join->rows / 8 + 1, 1, &memory);
      if (status != PACKBUF_OK) return packbuf_i_of_fragment(c->error, status, parts[i].fragment);
      validity = (uint8_t *)memory;
      memset(validity, 0xFF, (size_t)(c->join->rows / 8 + 1));
    }
    for (uint64_t row = 0; validity && packbuf_i_there(&column.validity) && row < parts[i].rows; row++)
      if (!packbuf_i_get_bit(&column.validity, row)) {
        const uint64_t bit = parts[i].first_row + row;
        validity[bit / 8] = (uint8_t)(validity[bit / 8] & ~(1u << bit % 8));
      }
    if (!packbuf_i_mul(each, parts[i].rows, &bytes) || bytes > size - at ||
        (!packbuf_i_there(&column.row_index) &&
         column.data.count * (packbuf_i_element_bits(column.data.dtype) / 8) != bytes))
      return packbuf_i_of_fragment(
          c->error,
          packbuf_i_broken(c->error, PACKBUF_RULE_B13, packbuf_i_buffer_at(column.view, column.data.index),
                           PACKBUF_NOWHERE),
          parts[i].fragment);
    if (packbuf_i_there(&column.row_index)) status = packbuf_i_concat_shared(&column, each, data + at, c->error);
    else if (!packbuf_i_copy_native(&column.data, 0, (size_t)column.data.count, data + at))
      status = packbuf_i_not_fetched(&column.data, 0, bytes, PACKBUF_NOWHERE, c->error);
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(c->error, status, parts[i].fragment);
    at += bytes;
  }
  field->tensor.data = data;
  field->tensor.shape = field->shape;
  field->tensor.dtype = field->node.dtype;
  field->tensor.rank = (uint8_t)(field->node.rank + 1);
  field->tensor.form = field->node.form;
  field->node.source = PACKBUF_I_FROM_TENSOR;
  field->node.tensors = &field->tensor;
  field->node.bitmap = validity;
  return PACKBUF_OK;
}

/* The elements of a cell: where they are, or joined in the arena when they are in two pieces. */
static packbuf_status packbuf_i_concat_pieces(packbuf_i_concat *c, const packbuf_column *column, const uint8_t *data,
                                              const packbuf_piece *pieces, unsigned count, const void **out) {
  const uint64_t element = packbuf_i_element_bits(column->data.dtype) / 8;
  packbuf_status status;
  uint8_t *copy;
  void *memory;
  *out = count ? data + pieces[0].first * element : data;
  if (count < 2) return PACKBUF_OK;
  status = packbuf_i_concat_make(c, column->view, pieces[0].count + pieces[1].count, (size_t)element, &memory);
  if (status != PACKBUF_OK) return status;
  copy = (uint8_t *)memory;
  memcpy(copy, *out, (size_t)(pieces[0].count * element));
  memcpy(copy + pieces[0].count * element, data + pieces[1].first * element, (size_t)(pieces[1].count * element));
  *out = copy;
  return PACKBUF_OK;
}

/* The cells of one part of a ragged column as tensors that point to its elements. */
static packbuf_status packbuf_i_concat_part(packbuf_i_concat *c, const packbuf_join_part *part,
                                            const packbuf_node *type, packbuf_tensor *tensors, uint64_t *shapes,
                                            unsigned room) {
  const uint8_t *data;
  packbuf_column column;
  packbuf_status status = packbuf_i_concat_column(c, part, type, &column);
  if (status == PACKBUF_OK) status = packbuf_i_concat_elements(c, &column, &data);
  for (uint64_t row = 0; status == PACKBUF_OK && row < part->rows; row++) {
    packbuf_tensor *tensor = &tensors[row];
    uint64_t *shape = shapes + row * room, dims[PACKBUF_MAX_RANK];
    packbuf_piece pieces[2];
    unsigned rank = 0, count = 0;
    int state = 0;
    memset(tensor, 0, sizeof *tensor);
    status = packbuf_cell_state(&column, row, &state, c->error);
    if (status != PACKBUF_OK || state != 1) continue;
    status = packbuf_cell_shape(&column, row, &rank, dims, c->error);
    if (status == PACKBUF_OK) status = packbuf_cell_pieces(&column, row, pieces, &count, c->error);
    if (status == PACKBUF_OK) status = packbuf_i_concat_pieces(c, &column, data, pieces, count, &tensor->data);
    if (status != PACKBUF_OK) break;
    for (unsigned d = 0; d < rank && d < room; d++) shape[d] = dims[d];
    tensor->dtype = column.node.dtype;
    tensor->rank = (uint8_t)(rank < room ? rank : room);
    tensor->form = column.node.form == PACKBUF_FORM_TENSOR ? PACKBUF_FORM_TENSOR : PACKBUF_FORM_ARRAY;
    tensor->shape = shape;
  }
  return packbuf_i_of_fragment(c->error, status, part->fragment);
}

static packbuf_status packbuf_i_concat_ragged(packbuf_i_concat *c, packbuf_i_field *field, const packbuf_node *type,
                                              const packbuf_join_part *parts, uint32_t count) {
  const packbuf_view *view = &c->join->views[parts[0].fragment];
  const unsigned room = field->node.rank;
  const uint64_t rows = c->join->rows;
  packbuf_tensor *tensors;
  void *memory, *shapes = NULL;
  unsigned most = 0;
  int any = 0;
  packbuf_status status = packbuf_i_concat_make(c, view, rows, sizeof *tensors, &memory);
  if (status == PACKBUF_OK) status = packbuf_i_concat_make(c, view, rows, room * sizeof(uint64_t), &shapes);
  if (status != PACKBUF_OK) return packbuf_i_of_fragment(c->error, status, parts[0].fragment);
  tensors = (packbuf_tensor *)memory;
  for (uint32_t i = 0; i < count; i++) {
    status = packbuf_i_concat_part(c, &parts[i], type, tensors + parts[i].first_row,
                                   (uint64_t *)shapes + parts[i].first_row * room, room);
    if (status != PACKBUF_OK) return status;
  }
  for (uint64_t row = 0; row < rows; row++) {
    if (!tensors[row].dtype.bits) continue;
    if (any && tensors[row].rank != most) field->node.mixed_ranks = 1;
    if (tensors[row].rank > most) most = tensors[row].rank;
    any = 1;
  }
  if (any) field->node.rank = (uint8_t)most;
  field->node.source = PACKBUF_I_FROM_TENSORS;
  field->node.tensors = tensors;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_concat_text(packbuf_i_concat *c, packbuf_i_field *field, const packbuf_node *type,
                                            const packbuf_join_part *parts, uint32_t count) {
  packbuf_text *texts;
  void *memory;
  packbuf_status status =
      packbuf_i_concat_make(c, &c->join->views[parts[0].fragment], c->join->rows, sizeof *texts, &memory);
  if (status != PACKBUF_OK) return packbuf_i_of_fragment(c->error, status, parts[0].fragment);
  texts = (packbuf_text *)memory;
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t *data = NULL;
    packbuf_column column;
    status = packbuf_i_concat_column(c, &parts[i], type, &column);
    if (status == PACKBUF_OK) status = packbuf_i_concat_elements(c, &column, &data);
    for (uint64_t row = 0; status == PACKBUF_OK && row < parts[i].rows; row++) {
      packbuf_text *text = &texts[parts[i].first_row + row];
      uint64_t first = 0, size = 0;
      int state = 0;
      text->data = NULL;
      text->size = 0;
      status = packbuf_cell_state(&column, row, &state, c->error);
      if (status != PACKBUF_OK || state != 1) continue;
      status = packbuf_cell_extent(&column, row, &first, &size, c->error);
      if (status != PACKBUF_OK) break;
      text->data = (const char *)data + first;
      text->size = (size_t)size;
    }
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(c->error, status, parts[i].fragment);
  }
  field->node.source = PACKBUF_I_FROM_TEXT;
  field->node.texts = texts;
  return PACKBUF_OK;
}

/* ---- everything else, as values ---- */

/* The first part that has rows, or the first. */
static const packbuf_join_part *packbuf_i_concat_first(const packbuf_join_field *field) {
  for (uint32_t i = 0; i < field->part_count; i++)
    if (field->parts[i].rows) return &field->parts[i];
  return &field->parts[0];
}

static int packbuf_i_concat_asked(const packbuf_i_concat *c, const char *path, unsigned scope) {
  const packbuf_options *options = &c->batch->options;
  for (size_t i = 0; i < options->schema_count; i++)
    if (options->schemas[i].path && options->schemas[i].batch_value == scope &&
        strcmp(options->schemas[i].path, path) == 0)
      return 1;
  return 0;
}

/* Notes that a leaf has to become what it was, unless the caller asks for something else. */
static packbuf_status packbuf_i_concat_keep(packbuf_i_concat *c, const packbuf_view *view, const packbuf_node *node) {
  const size_t size = packbuf_node_path(view, node->index, NULL, 0) + 1;
  packbuf_schema *schema;
  char *path = (char *)packbuf_i_array(c->arena, size, 1), *parameter = NULL;
  if (!path) return packbuf_i_no_memory(c->error);
  packbuf_node_path(view, node->index, path, size);
  if (packbuf_i_concat_asked(c, path, node->scope)) return PACKBUF_OK;
  if (c->schema_count == c->schema_room) {
    const size_t room = c->schema_room ? c->schema_room * 2 : 16;
    packbuf_schema *more = (packbuf_schema *)packbuf_i_array(c->arena, room, sizeof *more);
    if (!more) return packbuf_i_no_memory(c->error);
    if (c->schema_count) memcpy(more, c->schemas, c->schema_count * sizeof *more);
    c->schemas = more;
    c->schema_room = room;
  }
  if (node->parameter.size && node->codec != PACKBUF_CODEC_OPAQUE_RAGGED) {
    parameter = (char *)packbuf_i_array(c->arena, node->parameter.size + 1, 1);
    if (!parameter) return packbuf_i_no_memory(c->error);
    memcpy(parameter, node->parameter.data, node->parameter.size);
    parameter[node->parameter.size] = 0;
  }
  schema = &c->schemas[c->schema_count++];
  memset(schema, 0, sizeof *schema);
  schema->path = path;
  schema->codec = (packbuf_codec)node->codec;
  if (packbuf_i_numeric(schema->codec)) schema->dtype = node->dtype;
  schema->flags = PACKBUF_IF_PRESENT; /* what no row has is a leaf of its own no more */
  schema->batch_value = node->scope;
  schema->logical_type = node->logical_type;
  schema->parameter = parameter;
  return PACKBUF_OK;
}

/* The same for all leaves below a node. */
static packbuf_status packbuf_i_concat_keep_all(packbuf_i_concat *c, const packbuf_join_part *part) {
  const packbuf_view *view = &c->join->views[part->fragment];
  packbuf_node node;
  packbuf_status status = packbuf_get_node(view, part->node, &node, c->error);
  const uint64_t end = (uint64_t)part->node + node.descendants;
  for (uint64_t i = part->node; status == PACKBUF_OK && i <= end; i++) {
    status = packbuf_get_node(view, (uint32_t)i, &node, c->error);
    if (status != PACKBUF_OK || node.kind != PACKBUF_LEAF) continue;
    if (node.codec != PACKBUF_CODEC_NULL) status = packbuf_i_concat_keep(c, view, &node);
    i += node.descendants; /* attributes come with the media */
  }
  return status;
}

static packbuf_status packbuf_i_concat_values(packbuf_i_concat *c, const packbuf_join_field *from,
                                              packbuf_i_field *field) {
  const uint64_t rows = c->join->rows;
  const packbuf_join_part *first = packbuf_i_concat_first(from);
  packbuf_value *values;
  packbuf_i_slots out;
  void *memory;
  packbuf_status status = packbuf_i_concat_make(c, &c->join->views[first->fragment], rows, sizeof *values, &memory);
  if (status != PACKBUF_OK) return packbuf_i_of_fragment(c->error, status, first->fragment);
  values = (packbuf_value *)memory;
  out.first = values;
  out.step = sizeof *values;
  status = packbuf_i_join_read(c->join, from, NULL, 0, rows, c->arena, out, c->error);
  if (status == PACKBUF_OK && from->same) status = packbuf_i_concat_keep_all(c, first);
  field->node.source = PACKBUF_I_FROM_CELLS;
  field->node.cells.values = values;
  field->node.cells.count = rows;
  return status;
}

/* ---- the batch ---- */

static packbuf_status packbuf_i_concat_field(packbuf_i_concat *c, const packbuf_join_field *from) {
  const packbuf_join_part *first = packbuf_i_concat_first(from), *parts = from->parts;
  const packbuf_view *view = &c->join->views[first->fragment];
  uint32_t count = from->part_count;
  packbuf_i_field *field;
  packbuf_node node;
  int fast = 0;
  packbuf_status status = packbuf_i_new_field(c->batch, from->name.data, from->name.size, 0, &field, c->error);
  if (status == PACKBUF_OK && from->same) status = packbuf_i_concat_fast(c, from, &fast);
  if (status == PACKBUF_OK) status = packbuf_get_node(view, first->node, &node, c->error);
  if (status != PACKBUF_OK) return status;
  if (fast) {
    packbuf_join_part *kept = (packbuf_join_part *)packbuf_i_array(c->arena, count, sizeof *kept);
    uint32_t left = 0;
    if (!kept) return packbuf_i_no_memory(c->error);
    for (uint32_t i = 0; i < count; i++) /* parts without rows may have another type */
      if (parts[i].rows || (!first->rows && &parts[i] == first)) kept[left++] = parts[i];
    parts = kept, count = left;
    field->node.codec = node.codec;
    field->node.dtype = node.dtype;
    field->node.form = node.form;
    field->node.rank = node.rank;
    field->node.logical_type = node.logical_type;
    field->node.parameter = node.parameter.size ? node.parameter.data : NULL;
    field->node.parameter_size = node.parameter.size;
    memcpy(field->node.shape, node.shape, sizeof node.shape);
    field->node.reason = "taken over from fragments";
    if (node.codec == PACKBUF_CODEC_NDARRAY) status = packbuf_i_concat_dense(c, field, &node, parts, count);
    else if (node.codec == PACKBUF_CODEC_UTF8_RAGGED || node.codec == PACKBUF_CODEC_BYTES_RAGGED)
      status = packbuf_i_concat_text(c, field, &node, parts, count);
    else status = packbuf_i_concat_ragged(c, field, &node, parts, count);
  } else {
    status = packbuf_i_concat_values(c, from, field);
  }
  if (status == PACKBUF_OK) packbuf_i_link_field(c->batch, field);
  return status;
}

static packbuf_status packbuf_i_concat_batch_values(packbuf_i_concat *c) {
  packbuf_status status = PACKBUF_OK;
  for (uint32_t i = 0; status == PACKBUF_OK && i < c->join->value_count; i++) {
    const packbuf_join_field *from = &c->join->values[i];
    packbuf_i_field *field;
    status = packbuf_i_new_field(c->batch, from->name.data, from->name.size, 1, &field, c->error);
    if (status == PACKBUF_OK) status = packbuf_i_join_value(c->join, from, c->arena, &field->value, c->error);
    if (status == PACKBUF_OK) status = packbuf_i_concat_keep_all(c, &from->parts[0]);
    if (status != PACKBUF_OK) return status;
    field->node.source = PACKBUF_I_FROM_CELLS;
    field->node.cells.values = &field->value;
    field->node.cells.count = 1;
    packbuf_i_link_field(c->batch, field);
  }
  return status;
}

/* Where a pair is, or would be, in the table of pairs: strangers may bring many. */
static packbuf_i_pair **packbuf_i_concat_slot(const packbuf_i_concat *c, const char *path, packbuf_text key) {
  packbuf_i_sha256 hash; /* so that they cannot choose keys that all fall on one place */
  uint8_t digest[32];
  uint64_t slot;
  packbuf_i_sha256_start(&hash);
  packbuf_i_sha256_add(&hash, key.data, key.size);
  if (path) packbuf_i_sha256_add(&hash, path, strlen(path));
  packbuf_i_sha256_end(&hash, digest);
  for (slot = packbuf_i_load64(digest) & c->pair_mask; c->pairs[slot]; slot = (slot + 1) & c->pair_mask) {
    const packbuf_i_pair *pair = c->pairs[slot];
    if ((path ? pair->path && strcmp(pair->path, path) == 0 : !pair->path) &&
        packbuf_i_same_bytes(pair->key, pair->key_size, key.data, key.size))
      break;
  }
  return &c->pairs[slot];
}

static packbuf_status packbuf_i_concat_pairs(packbuf_i_concat *c) {
  uint64_t count = 0, room = 16;
  for (uint32_t i = 0; i < c->join->view_count; i++) count += c->join->views[i].metadata_count;
  while (room < 2 * count) room *= 2;
  c->pairs = (packbuf_i_pair **)packbuf_i_array(c->arena, room, sizeof *c->pairs);
  if (!c->pairs) return packbuf_i_no_memory(c->error);
  memset(c->pairs, 0, (size_t)room * sizeof *c->pairs);
  c->pair_mask = room - 1;
  return PACKBUF_OK;
}

/* The path of a node whose metadata can be kept, since the batch to come has a node of this path; else *path is NULL.
 */
static packbuf_status packbuf_i_concat_path(packbuf_i_concat *c, const packbuf_view *view, uint32_t index,
                                            char **path) {
  const size_t size = packbuf_node_path(view, index, NULL, 0) + 1;
  const packbuf_join_field *field = NULL;
  packbuf_node node;
  int nested = 0;
  *path = NULL;
  if (packbuf_get_node(view, index, &node, NULL) != PACKBUF_OK || node.scope) return PACKBUF_OK;
  *path = (char *)packbuf_i_array(c->arena, size, 1);
  if (!*path) return packbuf_i_no_memory(c->error);
  packbuf_node_path(view, index, *path, size);
  if (packbuf_i_join_find(c->join, *path, &field, &nested, NULL) != PACKBUF_OK || (nested && !field->same))
    *path = NULL;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_concat_metadata(packbuf_i_concat *c, uint32_t fragment) {
  const packbuf_view *view = &c->join->views[fragment];
  for (uint32_t i = 0; i < view->metadata_count; i++) {
    packbuf_metadata from;
    packbuf_i_pair *pair, **slot;
    char *path = NULL;
    packbuf_status status = packbuf_get_metadata(view, i, &from, c->error);
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(c->error, status, fragment);
    if (from.node != PACKBUF_NO_NODE) {
      status = packbuf_i_concat_path(c, view, from.node, &path);
      if (status != PACKBUF_OK) return status;
      if (!path) continue;
    }
    slot = packbuf_i_concat_slot(c, path, from.key);
    pair = *slot;
    if (pair) {
      if (!(c->join->flags & PACKBUF_FIRST_VALUE) &&
          !packbuf_i_same_bytes(pair->text, pair->text_size, from.text.data, from.text.size))
        return packbuf_i_join_fail(
            c->error, PACKBUF_SCHEMA_MISMATCH,
            "fragments have different metadata of this key (PACKBUF_FIRST_VALUE, first_value: the first's)", from.key,
            fragment, PACKBUF_NOWHERE);
      continue;
    }
    pair = (packbuf_i_pair *)packbuf_i_array(c->arena, 1, sizeof *pair);
    if (!pair) return packbuf_i_no_memory(c->error);
    pair->next = NULL;
    pair->path = path;
    pair->yields = 0;
    pair->key = from.key.data, pair->key_size = from.key.size;
    pair->text = from.text.data, pair->text_size = from.text.size;
    if (c->batch->last_pair) c->batch->last_pair->next = pair;
    else c->batch->pairs = pair;
    c->batch->last_pair = pair;
    *slot = pair;
  }
  return PACKBUF_OK;
}

/* The caller's schemas, and those that keep leaves what they were. */
static packbuf_status packbuf_i_concat_schemas(packbuf_i_concat *c) {
  packbuf_options *options = &c->batch->options;
  packbuf_schema *all;
  if (!c->schema_count) return PACKBUF_OK;
  all = (packbuf_schema *)packbuf_i_array(c->arena, c->schema_count + options->schema_count, sizeof *all);
  if (!all) return packbuf_i_no_memory(c->error);
  if (options->schema_count) memcpy(all, options->schemas, options->schema_count * sizeof *all);
  memcpy(all + options->schema_count, c->schemas, c->schema_count * sizeof *all);
  options->schemas = all;
  options->schema_count += c->schema_count;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_concat_all_metadata(packbuf_i_concat *c) {
  packbuf_status status = packbuf_i_concat_pairs(c);
  for (uint32_t i = 0; status == PACKBUF_OK && i < c->join->view_count; i++) status = packbuf_i_concat_metadata(c, i);
  return status;
}

/* Whether packbuf_join_batch would take what the last fragment of a join says of the whole. Of the others the heads
 * are read, and the batch values that the last one has too, unless the first of them counts. */
static packbuf_status packbuf_i_join_agrees(const packbuf_join *join, packbuf_arena *arena, packbuf_error *error) {
  packbuf_batch batch;
  packbuf_i_concat c;
  packbuf_status status = packbuf_batch_init(&batch, join->rows, arena, NULL, error);
  memset(&c, 0, sizeof c);
  c.join = join;
  c.batch = &batch;
  c.arena = arena;
  c.error = error;
  for (uint32_t i = 0; status == PACKBUF_OK && !(join->flags & PACKBUF_FIRST_VALUE) && i < join->value_count; i++) {
    const packbuf_join_field *field = &join->values[i];
    packbuf_value value;
    if (field->parts[field->part_count - 1].fragment + 1 == join->view_count)
      status = packbuf_i_join_value(join, field, arena, &value, error);
  }
  return status == PACKBUF_OK ? packbuf_i_concat_all_metadata(&c) : status;
}

PACKBUF_API packbuf_status packbuf_join_batch(const packbuf_join *join, packbuf_arena *arena,
                                              const packbuf_options *options, packbuf_batch *batch,
                                              packbuf_error *error) {
  packbuf_i_concat c;
  packbuf_status status;
  if (!join || !arena || !batch)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a join, an arena and a batch must be given",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  memset(&c, 0, sizeof c);
  c.join = join;
  c.batch = batch;
  c.arena = arena;
  c.error = error;
  status = packbuf_batch_init(batch, join->rows, arena, options, error);
  for (uint32_t i = 0; status == PACKBUF_OK && i < join->field_count; i++)
    status = packbuf_i_concat_field(&c, &join->fields[i]);
  if (status == PACKBUF_OK) status = packbuf_i_concat_batch_values(&c);
  if (status == PACKBUF_OK) status = packbuf_i_concat_all_metadata(&c);
  return status != PACKBUF_OK ? status : packbuf_i_concat_schemas(&c);
}

PACKBUF_API packbuf_status packbuf_concat(const packbuf_view *views, uint64_t count, unsigned flags,
                                          packbuf_arena *arena, const packbuf_options *options, packbuf_batch *batch,
                                          packbuf_error *error) {
  packbuf_join *join = arena ? (packbuf_join *)packbuf_arena_alloc(arena, sizeof *join, 8) : NULL;
  packbuf_status status;
  if (!join)
    return arena ? packbuf_i_no_memory(error)
                 : packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "an arena must be given", PACKBUF_NOWHERE,
                                  PACKBUF_NOWHERE);
  status = packbuf_join_init(join, NULL, views, count, flags, arena, error);
  return status != PACKBUF_OK ? status : packbuf_join_batch(join, arena, options, batch, error);
}
