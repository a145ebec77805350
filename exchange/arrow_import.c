/* exchange/arrow_import.c: columns of Arrow as fields of a batch. What is a plain column stays where it is; of a
 * table's chunks numbers are put together, text and values are not moved.
 * May use: arrow_words, arrow_gather (bits), arrow_type to arrow_values, batch. Must not know: how batches are
 * written. */

/* One column: its chunks one after the other. */
typedef struct packbuf_i_chunked {
  packbuf_i_importer *in;
  const packbuf_i_arrow *type;
  const struct ArrowArray *const *chunks;
  size_t count;
  const char *name; /* of the field */
} packbuf_i_chunked;

/* ---- masks ---- */

/* The column's mask in *mask, NULL where nothing is null: in place where it begins at a byte, else a copy. */
static packbuf_status packbuf_i_chunked_mask(const packbuf_i_chunked *c, const uint8_t **mask) {
  const uint64_t rows = c->in->batch->rows;
  uint64_t at = 0;
  uint8_t *bits;
  int some = 0;
  for (size_t i = 0; i < c->count; i++) some |= packbuf_i_may_be_null(c->chunks[i]);
  *mask = NULL;
  if (!some) return PACKBUF_OK;
  if (c->count == 1 && c->chunks[0]->offset % 8 == 0) {
    *mask = (const uint8_t *)c->chunks[0]->buffers[0] + c->chunks[0]->offset / 8;
    return PACKBUF_OK;
  }
  bits = (uint8_t *)packbuf_i_array(c->in->arena, (rows + 7) / 8, 1);
  if (!bits) return packbuf_i_no_memory(c->in->error);
  memset(bits, 0, (size_t)((rows + 7) / 8));
  for (size_t i = 0; i < c->count; at += (uint64_t)c->chunks[i++]->length)
    packbuf_i_join_bits((const uint8_t *)c->chunks[i]->buffers[0], (uint64_t)c->chunks[i]->offset,
                        (uint64_t)c->chunks[i]->length, bits, at);
  *mask = bits;
  return PACKBUF_OK;
}

/* ---- numbers ---- */

/* The numbers of a column of which each row has `each`, in its arrays or (ROW) their children, end to end: in place or
 * in the arena. */
static packbuf_status packbuf_i_chunked_numbers(const packbuf_i_chunked *c, const packbuf_i_arrow *type, int below,
                                                uint64_t each, const uint8_t **data) {
  const size_t element = packbuf_i_number_dtype(type).bits / 8u;
  uint64_t count;
  uint8_t *out;
  if (c->count == 1) {
    const struct ArrowArray *array = below ? c->chunks[0]->children[0] : c->chunks[0];
    const uint64_t first = below ? (uint64_t)c->chunks[0]->offset * each : 0;
    *data = c->in->batch->rows * each != 0 ? packbuf_i_numbers_at(type, array, first) : (const uint8_t *)"";
    if (*data) return PACKBUF_OK;
  }
  out =
      packbuf_i_mul(c->in->batch->rows, each, &count) ? (uint8_t *)packbuf_i_array(c->in->arena, count, element) : NULL;
  if (!out) return packbuf_i_no_memory(c->in->error);
  *data = out;
  for (size_t i = 0; i < c->count; i++) {
    const struct ArrowArray *chunk = c->chunks[i];
    const uint64_t numbers = (uint64_t)chunk->length * each;
    packbuf_i_copy_numbers(type, below ? chunk->children[0] : chunk, below ? (uint64_t)chunk->offset * each : 0,
                           numbers, out);
    out += numbers * element;
  }
  return PACKBUF_OK;
}

/* A number a row, or (below) an array of one shape a row. */
static packbuf_status packbuf_i_add_arrow_numbers(const packbuf_i_chunked *c, int below) {
  const packbuf_i_arrow *type = below ? &c->type->children[0] : c->type;
  uint64_t shape[PACKBUF_MAX_RANK];
  packbuf_tensor tensor;
  const uint8_t *mask, *data;
  packbuf_status status = packbuf_i_chunked_mask(c, &mask);
  if (status == PACKBUF_OK) status = packbuf_i_chunked_numbers(c, type, below, below ? c->type->size : 1, &data);
  if (status != PACKBUF_OK) return status;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = data;
  tensor.dtype = packbuf_i_number_dtype(type);
  tensor.rank = (uint8_t)(!below ? 1 : c->type->rank ? c->type->rank + 1 : 2);
  tensor.form = below || tensor.dtype.code > PACKBUF_DTYPE_FLOAT ? PACKBUF_FORM_ARRAY : PACKBUF_FORM_NATURAL;
  if (tensor.dtype.code == PACKBUF_DTYPE_BOOL && !below) tensor.form = PACKBUF_FORM_NATURAL;
  tensor.shape = shape;
  shape[0] = c->in->batch->rows;
  shape[1] = c->type->size;
  if (c->type->rank) memcpy(shape + 1, c->type->shape, c->type->rank * sizeof *shape);
  return packbuf_add_tensor(c->in->batch, c->name, &tensor, mask, c->in->error);
}

/* ---- lists of numbers ---- */

/* Whether no element of the lists is null, so that they are rows of numbers. What lies under a list of fixed size that
 * is null itself does not count: writers make it null too. */
static int packbuf_i_lists_full(const packbuf_i_chunked *c) {
  for (size_t i = 0; i < c->count; i++) {
    const struct ArrowArray *chunk = c->chunks[i];
    uint64_t first = (uint64_t)chunk->offset * c->type->size, count = (uint64_t)chunk->length * c->type->size;
    if (c->type->kind == PACKBUF_I_ARROW_ROW && packbuf_i_may_be_null(chunk)) {
      for (uint64_t at = (uint64_t)chunk->offset; at < (uint64_t)(chunk->offset + chunk->length); at++)
        if (packbuf_i_arrow_valid(chunk, at) &&
            !packbuf_i_none_null(chunk->children[0], at * c->type->size, c->type->size))
          return 0;
      continue;
    }
    if (c->type->kind == PACKBUF_I_ARROW_LIST) {
      first = (uint64_t)packbuf_i_arrow_offset(c->type, chunk, (uint64_t)chunk->offset);
      count = (uint64_t)packbuf_i_arrow_offset(c->type, chunk, (uint64_t)(chunk->offset + chunk->length)) - first;
    }
    if (!packbuf_i_none_null(chunk->children[0], first, count)) return 0;
  }
  return 1;
}

/* Offsets of 64 bits from 0, and the elements, put together from all chunks. */
static packbuf_status packbuf_i_join_lists(const packbuf_i_chunked *c, const packbuf_i_arrow *item,
                                           packbuf_ragged *ragged) {
  const size_t element = packbuf_i_number_dtype(item).bits / 8u;
  int64_t *offsets = (int64_t *)packbuf_i_array(c->in->arena, c->in->batch->rows + 1, 8);
  uint64_t row = 0;
  uint8_t *data;
  if (!offsets) return packbuf_i_no_memory(c->in->error);
  offsets[0] = 0;
  for (size_t i = 0; i < c->count; i++) {
    const uint64_t first = (uint64_t)c->chunks[i]->offset;
    const int64_t base = offsets[row] - packbuf_i_arrow_offset(c->type, c->chunks[i], first);
    for (uint64_t k = 1; k <= (uint64_t)c->chunks[i]->length; k++)
      offsets[++row] = base + packbuf_i_arrow_offset(c->type, c->chunks[i], first + k);
  }
  ragged->items = (uint64_t)offsets[row];
  data = (uint8_t *)packbuf_i_array(c->in->arena, ragged->items, element);
  if (!data) return packbuf_i_no_memory(c->in->error);
  ragged->data = data;
  ragged->offsets = offsets;
  ragged->offset_bits = 64;
  for (size_t i = 0; i < c->count; i++) {
    const struct ArrowArray *chunk = c->chunks[i];
    const uint64_t first = (uint64_t)packbuf_i_arrow_offset(c->type, chunk, (uint64_t)chunk->offset);
    const uint64_t end = (uint64_t)packbuf_i_arrow_offset(c->type, chunk, (uint64_t)(chunk->offset + chunk->length));
    packbuf_i_copy_numbers(item, chunk->children[0], first, end - first, data);
    data += (end - first) * element;
  }
  return PACKBUF_OK;
}

/* The elements of the one chunk where they lie, and a copy of its offsets, by which sizes are counted and bytes are put
 * down: whoever changes them meanwhile harms nobody. */
static packbuf_status packbuf_i_lend_lists(const packbuf_i_chunked *c, const packbuf_i_arrow *item,
                                           packbuf_ragged *ragged) {
  const struct ArrowArray *chunk = c->chunks[0];
  const size_t size = c->type->wide ? 8 : 4;
  const uint64_t count = (uint64_t)chunk->length + 1;
  void *offsets = packbuf_i_array(c->in->arena, count, size);
  if (!offsets) return packbuf_i_no_memory(c->in->error);
  memcpy(offsets, (const uint8_t *)chunk->buffers[1] + (uint64_t)chunk->offset * size, (size_t)count * size);
  ragged->data = packbuf_i_numbers_at(item, chunk->children[0], 0);
  ragged->items = (uint64_t)chunk->children[0]->length;
  ragged->offset_bits = (uint8_t)(8 * size);
  ragged->offsets = offsets;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_add_lists(const packbuf_i_chunked *c) {
  const packbuf_i_arrow *item = &c->type->children[0];
  packbuf_ragged ragged;
  packbuf_status status;
  memset(&ragged, 0, sizeof ragged);
  ragged.dtype = packbuf_i_number_dtype(item);
  ragged.form = ragged.dtype.code <= PACKBUF_DTYPE_FLOAT || ragged.dtype.code == PACKBUF_DTYPE_BOOL
                    ? PACKBUF_FORM_LIST
                    : PACKBUF_FORM_ARRAY;
  status = packbuf_i_chunked_mask(c, &ragged.validity);
  if (status != PACKBUF_OK) return status;
  if (c->count == 1 && c->chunks[0]->length && packbuf_i_numbers_at(item, c->chunks[0]->children[0], 0))
    status = packbuf_i_lend_lists(c, item, &ragged);
  else
    status = packbuf_i_join_lists(c, item, &ragged);
  return status == PACKBUF_OK ? packbuf_add_ragged(c->in->batch, c->name, &ragged, c->in->error) : status;
}

/* ---- text, bytes, and all else ---- */

static packbuf_status packbuf_i_add_texts(const packbuf_i_chunked *c) {
  packbuf_text *cells = (packbuf_text *)packbuf_i_array(c->in->arena, c->in->batch->rows, sizeof *cells);
  uint64_t row = 0;
  packbuf_status status = PACKBUF_OK;
  if (!cells) return packbuf_i_no_memory(c->in->error);
  for (size_t i = 0; i < c->count; i++) {
    const struct ArrowArray *chunk = c->chunks[i];
    for (uint64_t k = 0; status == PACKBUF_OK && k < (uint64_t)chunk->length; k++, row++) {
      const uint64_t at = (uint64_t)chunk->offset + k;
      cells[row].data = NULL;
      cells[row].size = 0;
      if (packbuf_i_arrow_valid(chunk, at)) status = packbuf_i_arrow_bytes(c->in, c->type, chunk, at, &cells[row]);
    }
  }
  if (status != PACKBUF_OK) return status;
  return c->type->cell == PACKBUF_I_CELL_TEXT ? packbuf_add_strings(c->in->batch, c->name, cells, c->in->error)
                                              : packbuf_add_bytes(c->in->batch, c->name, cells, c->in->error);
}

static packbuf_status packbuf_i_add_cells(const packbuf_i_chunked *c) {
  packbuf_value *values = (packbuf_value *)packbuf_i_array(c->in->arena, c->in->batch->rows, sizeof *values);
  uint64_t row = 0;
  packbuf_status status = PACKBUF_OK;
  if (!values) return packbuf_i_no_memory(c->in->error);
  for (size_t i = 0; i < c->count; i++) {
    for (uint64_t k = 0; status == PACKBUF_OK && k < (uint64_t)c->chunks[i]->length; k++)
      status = packbuf_i_arrow_value(c->in, c->type, c->chunks[i], k, &values[row++]);
  }
  return status == PACKBUF_OK ? packbuf_add_values(c->in->batch, c->name, values, c->in->error) : status;
}

/* ---- fields ---- */

/* Adds metadata as those of a path (NULL: of the batch), but what packbuf and Arrow say in them. They yield to those
 * that are added otherwise. */
static packbuf_status packbuf_i_note_pairs(const packbuf_i_importer *in, const char *path, const char *metadata) {
  const char *at;
  packbuf_text pair[2];
  int32_t count = packbuf_i_arrow_pairs(metadata, &at);
  packbuf_status status = PACKBUF_OK;
  for (; status == PACKBUF_OK && count > 0; count--) {
    if (!packbuf_i_arrow_pair(&at, pair)) break;
    if (!packbuf_i_reserved_key(pair[0]))
      status = packbuf_i_add_pair(in->batch, path, pair[0], pair[1], 1, in->error);
  }
  if (status != PACKBUF_OK || count == 0) return status;
  return packbuf_i_refuse_arrow(in, path, PACKBUF_INVALID_ARGUMENT, "metadata with a length below 0", PACKBUF_NOWHERE);
}

/* What a column's types say beside the values: metadata, and of times the logical type, for which there is room, and
 * zone. Below lists there are no paths for it. */
static packbuf_status packbuf_i_note_type(const packbuf_i_importer *in, const packbuf_i_arrow *type) {
  packbuf_status status = packbuf_i_note_pairs(in, type->path, type->schema->metadata);
  for (int64_t i = 0; status == PACKBUF_OK && type->kind == PACKBUF_I_ARROW_STRUCT && i < type->count; i++)
    status = packbuf_i_note_type(in, &type->children[i]);
  if (status == PACKBUF_OK && type->unit) {
    packbuf_schema *schema = (packbuf_schema *)(uintptr_t)&in->batch->options.schemas[in->batch->options.schema_count];
    memset(schema, 0, sizeof *schema); /* in the arena, beyond the caller's */
    schema->path = type->path;
    schema->flags = PACKBUF_IF_PRESENT;
    schema->logical_type = 1;
    schema->parameter = type->unit;
    in->batch->options.schema_count++;
    if (type->zone.size)
      status = packbuf_i_add_pair(in->batch, type->path, packbuf_i_text_of(PACKBUF_I_TIMEZONE_KEY), type->zone, 1,
                                  in->error);
  }
  return status;
}

/* Room for the schemas of times behind those that there are. */
static packbuf_status packbuf_i_room_for_times(const packbuf_i_importer *in) {
  packbuf_options *options = &in->batch->options;
  packbuf_schema *schemas;
  if (!in->times) return PACKBUF_OK;
  schemas = (packbuf_schema *)packbuf_i_array(in->arena, options->schema_count + in->times, sizeof *schemas);
  if (!schemas) return packbuf_i_no_memory(in->error);
  if (options->schema_count) memcpy(schemas, options->schemas, options->schema_count * sizeof *schemas);
  options->schemas = schemas;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_add_column(const packbuf_i_chunked *c) {
  const packbuf_i_arrow *type = c->type;
  const packbuf_i_arrow *item =
      type->kind == PACKBUF_I_ARROW_LIST || type->kind == PACKBUF_I_ARROW_ROW ? &type->children[0] : NULL;
  packbuf_status status = PACKBUF_OK;
  uint64_t rows = 0;
  for (size_t i = 0; status == PACKBUF_OK && i < c->count; i++) {
    status = packbuf_i_check_arrow(c->in, type, c->chunks[i]);
    if (status == PACKBUF_OK && !packbuf_i_add(rows, (uint64_t)c->chunks[i]->length, &rows)) rows = UINT64_MAX;
  }
  if (status != PACKBUF_OK) return status;
  if (rows != c->in->batch->rows)
    return packbuf_i_refuse_type(c->in, type, PACKBUF_ROW_COUNT, packbuf_status_text(PACKBUF_ROW_COUNT));
  if (packbuf_i_is_number(type)) status = packbuf_i_add_arrow_numbers(c, 0);
  else if (item && packbuf_i_is_number(item) && !item->unit && packbuf_i_lists_full(c))
    status = type->kind == PACKBUF_I_ARROW_LIST ? packbuf_i_add_lists(c) : packbuf_i_add_arrow_numbers(c, 1);
  else if (type->cell <= PACKBUF_I_CELL_TEXT &&
           (type->kind == PACKBUF_I_ARROW_BYTES || type->kind == PACKBUF_I_ARROW_VIEWS ||
            type->kind == PACKBUF_I_ARROW_BLOCK))
    status = packbuf_i_add_texts(c);
  else status = packbuf_i_add_cells(c);
  return status == PACKBUF_OK ? packbuf_i_note_type(c->in, type) : status;
}

static packbuf_status packbuf_i_begin_import(packbuf_i_importer *in, packbuf_batch *batch,
                                             const struct ArrowArray *const *chunks, size_t count,
                                             packbuf_error *error) {
  memset(in, 0, sizeof *in);
  if (!batch || (count && !chunks))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "batch and chunks must be given", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  in->batch = batch;
  in->arena = batch->arena;
  in->error = error;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_arrow_add(packbuf_batch *batch, const char *name, const struct ArrowSchema *schema,
                                             const struct ArrowArray *const *chunks, size_t count,
                                             packbuf_error *error) {
  packbuf_i_importer in;
  packbuf_i_chunked c;
  packbuf_i_arrow type;
  const char *path;
  packbuf_status status = packbuf_i_begin_import(&in, batch, chunks, count, error);
  if (status != PACKBUF_OK) return status;
  path = name ? packbuf_i_longer_path(in.arena, NULL, packbuf_i_text_of(name)) : NULL;
  if (!path)
    return name ? packbuf_i_no_memory(error)
                : packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a field has a name", PACKBUF_NOWHERE,
                                 PACKBUF_NOWHERE);
  status = packbuf_i_read_arrow_type(&in, schema, path, 0, 0, &type);
  if (status == PACKBUF_OK) status = packbuf_i_room_for_times(&in);
  if (status != PACKBUF_OK) return status;
  c.in = &in;
  c.type = &type;
  c.chunks = chunks;
  c.count = count;
  c.name = name;
  return packbuf_i_add_column(&c);
}

/* A struct's child, without the struct: its offset and length are the struct's. */
static packbuf_status packbuf_i_add_child(packbuf_i_importer *in, const packbuf_i_arrow *type, int64_t at,
                                          const struct ArrowArray *const *chunks, size_t count, struct ArrowArray *cut,
                                          const struct ArrowArray **children) {
  packbuf_i_chunked c;
  for (size_t i = 0; i < count; i++) {
    const struct ArrowArray *child = chunks[i]->children[at];
    cut[i] = *child;
    cut[i].offset += chunks[i]->offset; /* both were checked: below 2^56 */
    cut[i].length = chunks[i]->length;
    if (child->null_count > 0) cut[i].null_count = -1; /* of those that are left */
    children[i] = &cut[i];
  }
  c.in = in;
  c.type = &type->children[at];
  c.chunks = children;
  c.count = count;
  c.name = type->children[at].schema->name ? type->children[at].schema->name : "";
  return packbuf_i_add_column(&c);
}

PACKBUF_API packbuf_status packbuf_arrow_import(packbuf_batch *batch, const struct ArrowSchema *schema,
                                                const struct ArrowArray *const *chunks, size_t count,
                                                packbuf_error *error) {
  packbuf_i_importer in;
  packbuf_i_arrow type;
  const struct ArrowArray **children;
  struct ArrowArray *cut;
  packbuf_status status = packbuf_i_begin_import(&in, batch, chunks, count, error);
  if (status == PACKBUF_OK) status = packbuf_i_read_arrow_type(&in, schema, NULL, 0, 0, &type);
  if (status != PACKBUF_OK) return status;
  type.path = "";
  if (type.kind != PACKBUF_I_ARROW_STRUCT)
    return packbuf_i_refuse_type(&in, &type, PACKBUF_WRONG_TYPE, "a record batch is a struct: name a field of others");
  for (size_t i = 0; status == PACKBUF_OK && i < count; i++) {
    status = packbuf_i_check_arrow(&in, &type, chunks[i]);
    if (status == PACKBUF_OK && !packbuf_i_none_null(chunks[i], 0, (uint64_t)chunks[i]->length))
      status = packbuf_i_refuse_type(&in, &type, PACKBUF_NOT_NULLABLE, "a record batch with rows that are null");
  }
  if (status == PACKBUF_OK) status = packbuf_i_room_for_times(&in);
  if (status == PACKBUF_OK) status = packbuf_i_note_pairs(&in, NULL, schema->metadata);
  if (status != PACKBUF_OK) return status;
  cut = (struct ArrowArray *)packbuf_i_array(in.arena, count, sizeof *cut);
  children = (const struct ArrowArray **)packbuf_i_array(in.arena, count, sizeof *children);
  if (!cut || !children) return packbuf_i_no_memory(error);
  for (int64_t i = 0; status == PACKBUF_OK && i < type.count; i++)
    status = packbuf_i_add_child(&in, &type, i, chunks, count, cut, children);
  return status;
}
