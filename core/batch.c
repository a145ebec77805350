/* core/batch.c: the batch builder: takes descriptions of fields, checks what can be checked without looking at the
 * data, and keeps them in order.
 * May use: arena, values, columns. Must not know: codecs, layout, how bytes are written. */

/* A field or batch value, with the copies of its descriptions. */
typedef struct packbuf_i_field {
  struct packbuf_i_field *next;
  packbuf_i_node node;
  packbuf_tensor tensor;
  packbuf_ragged ragged;
  packbuf_value value;
  uint64_t shape[PACKBUF_MAX_RANK + 1]; /* rows, then a cell's dimensions: of fragments, a cell may have all of them */
  int64_t strides[PACKBUF_MAX_RANK];
} packbuf_i_field;

/* A metadata pair as the caller gave it. */
typedef struct packbuf_i_pair {
  struct packbuf_i_pair *next;
  const char *path, *key, *text; /* path NULL: of the whole buffer */
  size_t key_size, text_size;    /* as they were when the pair was added: a text that grows is cut, not overrun */
  int yields;                    /* to another of its path and key; and is left out where the batch has no such field */
} packbuf_i_pair;

PACKBUF_API packbuf_options packbuf_default_options(void) {
  packbuf_options options;
  memset(&options, 0, sizeof options);
  options.alignment_exponent = 6;
  options.data_checksums = 1;
  options.row_sharing = 1;
  return options;
}

PACKBUF_API packbuf_packing packbuf_packing_for_link(uint32_t gbits) {
  if (gbits >= 200) return PACKBUF_PACKING_NONE;
  if (gbits >= 100) return PACKBUF_PACKING_FASTEST;
  return gbits == 1 ? PACKBUF_PACKING_SMALLEST : PACKBUF_PACKING_BALANCED;
}

static packbuf_status packbuf_i_field_fail(packbuf_error *error, packbuf_status code, const char *message,
                                           const char *name, uint64_t row) {
  packbuf_i_fail(error, code, message, PACKBUF_NOWHERE, row);
  if (error && name) packbuf_i_set_path(error, name, strlen(name));
  return code;
}

/* What is wrong with a schema entry whatever the batch holds. */
static packbuf_status packbuf_i_check_schema(const packbuf_schema *schema, packbuf_error *error) {
  const char *message = NULL;
  if (schema->packing > PACKBUF_PACKING_AUTO) message = "a schema asks for a packing that there is not";
  else if (schema->flags & PACKBUF_KEEP_PLAIN && schema->packing > PACKBUF_PACKING_NONE)
    message = "a schema asks to keep a field plain and to pack it: take PACKBUF_KEEP_PLAIN away, or its packing";
  return message ? packbuf_i_field_fail(error, PACKBUF_INVALID_ARGUMENT, message, schema->path, PACKBUF_NOWHERE)
                 : PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_batch_init(packbuf_batch *batch, uint64_t rows, packbuf_arena *arena,
                                              const packbuf_options *options, packbuf_error *error) {
  if (!batch || !arena)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "batch and arena must be given", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  memset(batch, 0, sizeof *batch);
  batch->arena = arena;
  batch->rows = rows;
  batch->options = options ? *options : packbuf_default_options();
  if (batch->options.packing > PACKBUF_PACKING_AUTO || batch->options.alignment_exponent < 6 ||
      batch->options.alignment_exponent > 12 || batch->options.data_checksums > 1 || batch->options.row_sharing > 1 ||
      (unsigned)batch->options.mode > PACKBUF_COMPAT || (batch->options.schema_count && !batch->options.schemas))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "an option is out of range", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  for (size_t i = 0; i < batch->options.schema_count; i++) {
    const packbuf_status status = packbuf_i_check_schema(&batch->options.schemas[i], error);
    if (status) return status;
  }
  if (rows > ((uint64_t)1 << 48))
    return packbuf_i_fail(error, PACKBUF_LIMIT, "a batch has at most 2^48 rows", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (batch->options.packing == PACKBUF_PACKING_AUTO ||
      (batch->options.packing == PACKBUF_PACKING_DEFAULT && batch->options.link_gbits))
    batch->options.packing = (uint8_t)packbuf_packing_for_link(batch->options.link_gbits);
  return PACKBUF_OK;
}

/* A new field, not yet in the batch (packbuf_i_link_field). The name is checked for UTF-8 here, for being the only one
 * of its kind when the batch is measured. */
static packbuf_status packbuf_i_new_field(packbuf_batch *batch, const char *name, size_t name_size, unsigned scope,
                                          packbuf_i_field **out, packbuf_error *error) {
  packbuf_i_field *field = NULL;
  if (packbuf_i_utf8_valid((const uint8_t *)name, name_size) != name_size)
    return packbuf_i_fail(error, PACKBUF_BAD_UTF8, "a field's name is not UTF-8", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  field = (packbuf_i_field *)packbuf_arena_alloc(batch->arena, sizeof *field, 8);
  if (!field) return packbuf_i_no_memory(error);
  memset(field, 0, sizeof *field);
  field->node.name = name;
  field->node.name_size = name_size;
  field->node.scope = (uint8_t)scope;
  field->node.kind = PACKBUF_LEAF;
  field->node.rows = scope ? 1 : batch->rows;
  *out = field;
  return PACKBUF_OK;
}

static void packbuf_i_link_field(packbuf_batch *batch, packbuf_i_field *field) {
  if (batch->last) batch->last->next = field;
  else batch->first = field;
  batch->last = field;
  batch->plan = NULL;
}

static packbuf_status packbuf_i_check_add(const packbuf_batch *batch, const char *name, const void *what,
                                          packbuf_error *error) {
  if (!batch || !name || !what)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "batch, name and data must be given", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_check_tensor(const packbuf_tensor *tensor, const char *name, uint64_t row,
                                             packbuf_error *error) {
  const char *message;
  packbuf_status status = packbuf_i_array_fault(tensor, &message);
  return status ? packbuf_i_field_fail(error, status, message, name, row) : PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_add_tensor(packbuf_batch *batch, const char *name, const packbuf_tensor *tensor,
                                              const uint8_t *validity, packbuf_error *error) {
  packbuf_i_field *field = NULL;
  packbuf_status status = packbuf_i_check_add(batch, name, tensor, error);
  unsigned i;
  if (status) return status;
  status = packbuf_i_check_tensor(tensor, name, PACKBUF_NOWHERE, error);
  if (status) return status;
  if (tensor->rank == 0 || tensor->shape[0] != batch->rows)
    return packbuf_i_field_fail(error, PACKBUF_ROW_COUNT,
                                "the array's first dimension is not the batch's number of rows", name, PACKBUF_NOWHERE);
  if (tensor->form == PACKBUF_FORM_SCALAR && tensor->rank > 1)
    return packbuf_i_field_fail(error, PACKBUF_INVALID_ARGUMENT, "scalars have no dimensions of their own", name,
                                PACKBUF_NOWHERE);
  status = packbuf_i_new_field(batch, name, strlen(name), 0, &field, error);
  if (status) return status;
  field->tensor = *tensor;
  for (i = 0; i < tensor->rank; i++) field->shape[i] = tensor->shape[i];
  field->tensor.shape = field->shape;
  if (tensor->strides) {
    for (i = 0; i < tensor->rank; i++) field->strides[i] = tensor->strides[i];
    field->tensor.strides = field->strides;
  }
  field->node.source = PACKBUF_I_FROM_TENSOR;
  field->node.tensors = &field->tensor;
  field->node.bitmap = validity;
  field->node.device = tensor->device;
  field->node.codec = PACKBUF_CODEC_NDARRAY;
  field->node.dtype = tensor->dtype;
  field->node.rank = (uint8_t)(tensor->rank - 1);
  for (i = 1; i < tensor->rank; i++) field->node.shape[i - 1] = tensor->shape[i];
  field->node.form = tensor->form;
  if (tensor->rank > 1 && tensor->form == PACKBUF_FORM_NATURAL) field->node.form = PACKBUF_FORM_TENSOR;
  field->node.reason = "a dense array";
  packbuf_i_link_field(batch, field);
  return PACKBUF_OK;
}

static inline uint64_t packbuf_i_native_offset(const void *offsets, unsigned bits, uint64_t index) {
  if (bits == 32) {
    int32_t value;
    memcpy(&value, (const uint8_t *)offsets + 4 * index, 4);
    return value < 0 ? UINT64_MAX : (uint64_t)value;
  } else {
    int64_t value;
    memcpy(&value, (const uint8_t *)offsets + 8 * index, 8);
    return value < 0 ? UINT64_MAX : (uint64_t)value;
  }
}

/* The first item of a row, and how many it has; of an absent row whatever its offsets say. */
static inline uint64_t packbuf_i_first_item(const packbuf_ragged *ragged, uint64_t row) {
  return packbuf_i_native_offset(ragged->offsets, ragged->offset_bits, row);
}

static inline uint64_t packbuf_i_items(const packbuf_ragged *ragged, uint64_t row) {
  return ragged->lengths ? packbuf_i_native_offset(ragged->lengths, ragged->offset_bits, row)
                         : packbuf_i_first_item(ragged, row + 1) - packbuf_i_first_item(ragged, row);
}

PACKBUF_API packbuf_status packbuf_add_ragged(packbuf_batch *batch, const char *name, const packbuf_ragged *ragged,
                                              packbuf_error *error) {
  packbuf_i_field *field = NULL;
  packbuf_tensor item;
  packbuf_status status = packbuf_i_check_add(batch, name, ragged, error);
  uint64_t bytes;
  unsigned i;
  if (status) return status;
  memset(&item, 0, sizeof item);
  item.data = ragged->data;
  item.dtype = ragged->dtype;
  item.form = ragged->form == PACKBUF_FORM_LIST ? (uint8_t)PACKBUF_FORM_NATURAL : ragged->form;
  item.rank = ragged->item_rank;
  item.shape = ragged->item_shape;
  item.device = ragged->device;
  if (ragged->items == 0 && !item.data) item.data = ""; /* nothing to point to */
  status = packbuf_i_check_tensor(&item, name, PACKBUF_NOWHERE, error);
  if (status) return status;
  if (ragged->item_rank >= PACKBUF_MAX_RANK || (ragged->offset_bits != 32 && ragged->offset_bits != 64) ||
      !ragged->offsets || ragged->form == PACKBUF_FORM_SCALAR)
    return packbuf_i_field_fail(
        error, PACKBUF_INVALID_ARGUMENT,
        "ragged rows need 32- or 64-bit offsets, items of rank 0 to 7, and form tensor, array or list", name,
        PACKBUF_NOWHERE);
  bytes = packbuf_i_dtype_bytes(ragged->dtype);
  for (i = 0; i < ragged->item_rank; i++)
    bytes *= ragged->item_shape[i] ? ragged->item_shape[i] : 1; /* checked with the item */
  if (!packbuf_i_mul(bytes, ragged->items, &bytes) || bytes >> 62)
    return packbuf_i_field_fail(error, PACKBUF_INVALID_ARGUMENT, "the items are too large", name, PACKBUF_NOWHERE);
  status = packbuf_i_new_field(batch, name, strlen(name), 0, &field, error);
  if (status) return status;
  field->ragged = *ragged;
  for (i = 0; i < ragged->item_rank; i++) field->shape[i] = ragged->item_shape[i];
  field->ragged.item_shape = field->shape;
  field->node.source = PACKBUF_I_FROM_RAGGED;
  field->node.ragged = &field->ragged;
  field->node.bitmap = ragged->validity;
  field->node.device = ragged->device;
  field->node.form = ragged->form ? ragged->form : (uint8_t)PACKBUF_FORM_TENSOR;
  field->node.codec =
      field->node.form == PACKBUF_FORM_TENSOR ? PACKBUF_CODEC_RAGGED_TENSOR : PACKBUF_CODEC_TYPED_RAGGED;
  field->node.dtype = ragged->dtype;
  field->node.rank = (uint8_t)(ragged->item_rank + 1);
  field->node.reason = "rows given by offsets";
  packbuf_i_link_field(batch, field);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_add_tensors(packbuf_batch *batch, const char *name, const packbuf_tensor *tensors,
                                               packbuf_error *error) {
  packbuf_i_field *field = NULL;
  const packbuf_tensor *first = NULL;
  packbuf_status status;
  uint64_t row;
  if (!batch || !name || (!tensors && batch->rows)) return packbuf_i_check_add(batch, name, tensors, error);
  status = packbuf_i_new_field(batch, name, strlen(name), 0, &field, error);
  if (status) return status;
  for (row = 0; row < batch->rows; row++) {
    if (tensors[row].dtype.bits == 0) continue;
    status = packbuf_i_check_tensor(&tensors[row], name, row, error);
    if (status) return status;
    if (!first) first = &tensors[row];
    if (!packbuf_i_dtype_equal(first->dtype, tensors[row].dtype) || first->form != tensors[row].form)
      return packbuf_i_field_fail(error, PACKBUF_WRONG_TYPE, "all rows must have one dtype and form", name, row);
    if (tensors[row].rank > field->node.rank) field->node.rank = tensors[row].rank;
    if (tensors[row].device) field->node.device = tensors[row].device;
  }
  for (row = 0; row < batch->rows; row++)
    if (tensors[row].dtype.bits && tensors[row].rank != field->node.rank) field->node.mixed_ranks = 1;
  field->node.source = PACKBUF_I_FROM_TENSORS;
  field->node.tensors = tensors;
  field->node.codec = first ? PACKBUF_CODEC_RAGGED_TENSOR : PACKBUF_CODEC_NULL;
  if (first) {
    if (first->form == PACKBUF_FORM_ARRAY) field->node.codec = PACKBUF_CODEC_TYPED_RAGGED;
    if (first->form == PACKBUF_FORM_SCALAR)
      return packbuf_i_field_fail(error, PACKBUF_WRONG_TYPE, "scalars go into packbuf_add_tensor or packbuf_add_values",
                                  name, PACKBUF_NOWHERE);
    field->node.form = first->form ? first->form : (uint8_t)PACKBUF_FORM_TENSOR;
    field->node.dtype = first->dtype;
  }
  field->node.reason = "one array a row";
  packbuf_i_link_field(batch, field);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_add_text(packbuf_batch *batch, const char *name, const packbuf_text *cells,
                                         packbuf_codec codec, packbuf_error *error) {
  static const packbuf_text none = {NULL, 0};
  packbuf_i_field *field = NULL;
  packbuf_status status = packbuf_i_check_add(batch, name, batch && !batch->rows && !cells ? &none : cells, error);
  if (status) return status;
  status = packbuf_i_new_field(batch, name, strlen(name), 0, &field, error);
  if (status) return status;
  field->node.source = PACKBUF_I_FROM_TEXT;
  field->node.texts = cells;
  field->node.codec = (uint8_t)codec;
  field->node.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  field->node.reason = codec == PACKBUF_CODEC_UTF8_RAGGED ? "given as strings" : "given as bytes";
  packbuf_i_link_field(batch, field);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_add_strings(packbuf_batch *batch, const char *name, const packbuf_text *cells,
                                               packbuf_error *error) {
  return packbuf_i_add_text(batch, name, cells, PACKBUF_CODEC_UTF8_RAGGED, error);
}

PACKBUF_API packbuf_status packbuf_add_bytes(packbuf_batch *batch, const char *name, const packbuf_text *cells,
                                             packbuf_error *error) {
  return packbuf_i_add_text(batch, name, cells, PACKBUF_CODEC_BYTES_RAGGED, error);
}

PACKBUF_API packbuf_status packbuf_add_values(packbuf_batch *batch, const char *name, const packbuf_value *values,
                                              packbuf_error *error) {
  packbuf_i_field *field = NULL;
  packbuf_status status =
      packbuf_i_check_add(batch, name, batch && !batch->rows && !values ? &packbuf_i_null_cell : values, error);
  if (status) return status;
  status = packbuf_i_new_field(batch, name, strlen(name), 0, &field, error);
  if (status) return status;
  field->node.source = PACKBUF_I_FROM_CELLS;
  field->node.cells.values = values;
  field->node.cells.count = batch->rows;
  packbuf_i_link_field(batch, field);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_add_batch_value(packbuf_batch *batch, const char *name, const packbuf_value *value,
                                                   packbuf_error *error) {
  packbuf_i_field *field = NULL;
  packbuf_status status = packbuf_i_check_add(batch, name, value, error);
  if (status) return status;
  status = packbuf_i_new_field(batch, name, strlen(name), 1, &field, error);
  if (status) return status;
  field->value = *value;
  field->node.source = PACKBUF_I_FROM_CELLS;
  field->node.cells.values = &field->value;
  field->node.cells.count = 1;
  packbuf_i_link_field(batch, field);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_add_pair(packbuf_batch *batch, const char *path, packbuf_text key, packbuf_text text,
                                         int yields, packbuf_error *error) {
  packbuf_i_pair *pair;
  if (packbuf_i_utf8_valid((const uint8_t *)key.data, key.size) != key.size ||
      packbuf_i_utf8_valid((const uint8_t *)text.data, text.size) != text.size)
    return packbuf_i_field_fail(error, PACKBUF_BAD_UTF8, "metadata is text, and this is not UTF-8", path,
                                PACKBUF_NOWHERE);
  pair = (packbuf_i_pair *)packbuf_arena_alloc(batch->arena, sizeof *pair, 8);
  if (!pair) return packbuf_i_no_memory(error);
  pair->next = NULL;
  pair->path = path;
  pair->key = key.data;
  pair->text = text.data;
  pair->key_size = key.size;
  pair->text_size = text.size;
  pair->yields = yields;
  if (batch->last_pair) batch->last_pair->next = pair;
  else batch->pairs = pair;
  batch->last_pair = pair;
  batch->plan = NULL;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_add_metadata(packbuf_batch *batch, const char *path, const char *key,
                                                const char *text, packbuf_error *error) {
  packbuf_text pair[2];
  packbuf_status status = packbuf_i_check_add(batch, key, text, error);
  if (status) return status;
  pair[0].data = key, pair[0].size = strlen(key);
  pair[1].data = text, pair[1].size = strlen(text);
  return packbuf_i_add_pair(batch, path, pair[0], pair[1], 0, error);
}

/* The columns of packbuf_add_rows: an open-addressing table from key to column. The table only finds columns; their
 * order is that of first sight. */
typedef struct packbuf_i_row_fields {
  packbuf_batch *batch;
  packbuf_i_field **fields; /* in first-seen order; room for `room` */
  const packbuf_value ***cells;
  uint32_t *slots; /* index + 1, or 0; `room` * 2 of them */
  uint32_t count, room;
} packbuf_i_row_fields;

static uint32_t packbuf_i_name_hash(const char *name, size_t size) {
  return (uint32_t)packbuf_i_hash_bytes((const uint8_t *)name, size);
}

static void packbuf_i_row_fields_put(packbuf_i_row_fields *columns, uint32_t index) {
  const packbuf_i_node *node = &columns->fields[index]->node;
  uint32_t mask = columns->room * 2 - 1, slot = packbuf_i_name_hash(node->name, node->name_size) & mask;
  while (columns->slots[slot]) slot = (slot + 1) & mask;
  columns->slots[slot] = index + 1;
}

static int packbuf_i_row_fields_grow(packbuf_i_row_fields *columns) {
  uint32_t room = columns->room ? columns->room * 2 : 64;
  packbuf_arena *arena = columns->batch->arena;
  packbuf_i_field **fields = (packbuf_i_field **)packbuf_arena_alloc(arena, room * sizeof *fields, 8);
  const packbuf_value ***cells = (const packbuf_value ***)packbuf_arena_alloc(arena, room * sizeof *cells, 8);
  uint32_t *slots = (uint32_t *)packbuf_arena_alloc(arena, room * 2 * sizeof *slots, 8);
  if (!fields || !cells || !slots) return 0;
  if (columns->count) {
    memcpy(fields, columns->fields, columns->count * sizeof *fields);
    memcpy(cells, columns->cells, columns->count * sizeof *cells);
  }
  memset(slots, 0, room * 2 * sizeof *slots);
  columns->fields = fields;
  columns->cells = cells;
  columns->slots = slots;
  columns->room = room;
  for (uint32_t i = 0; i < columns->count; i++) packbuf_i_row_fields_put(columns, i);
  return 1;
}

static int packbuf_i_row_field_is(const packbuf_i_row_fields *columns, uint32_t index, const packbuf_value *key) {
  const packbuf_i_node *node = &columns->fields[index]->node;
  return packbuf_i_same_bytes(node->name, node->name_size, key->as.text.data, key->as.text.size);
}

/* The column of a key; a new one, missing in all rows so far, when there is none. `guess` is where the row before had
 * it. */
static packbuf_status packbuf_i_row_field_of(packbuf_i_row_fields *columns, const packbuf_value *key, uint32_t guess,
                                             uint32_t *index, packbuf_error *error) {
  packbuf_batch *batch = columns->batch;
  packbuf_status status;
  uint32_t slot, mask;
  uint64_t row;
  if (guess < columns->count && packbuf_i_row_field_is(columns, guess, key)) {
    *index = guess;
    return PACKBUF_OK;
  }
  if (columns->count == columns->room && !packbuf_i_row_fields_grow(columns)) return packbuf_i_no_memory(error);
  mask = columns->room * 2 - 1;
  for (slot = packbuf_i_name_hash(key->as.text.data, key->as.text.size) & mask; columns->slots[slot];
       slot = (slot + 1) & mask) {
    *index = columns->slots[slot] - 1;
    if (packbuf_i_row_field_is(columns, *index, key)) return PACKBUF_OK;
  }
  if (columns->count >= (1u << 20))
    return packbuf_i_fail(error, PACKBUF_LIMIT, "more than 2^20 fields", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  *index = columns->count;
  status = packbuf_i_new_field(batch, key->as.text.data, key->as.text.size, 0, &columns->fields[*index], error);
  if (status) return status;
  if (batch->rows > SIZE_MAX / sizeof(void *)) return packbuf_i_no_memory(error);
  columns->cells[*index] =
      (const packbuf_value **)packbuf_arena_alloc(batch->arena, (size_t)batch->rows * sizeof(void *), 8);
  if (!columns->cells[*index]) return packbuf_i_no_memory(error);
  for (row = 0; row < batch->rows; row++) columns->cells[*index][row] = &packbuf_i_missing_cell;
  columns->count++;
  packbuf_i_row_fields_put(columns, *index);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_add_rows(packbuf_batch *batch, const packbuf_value *rows, packbuf_error *error) {
  packbuf_i_row_fields columns;
  packbuf_status status =
      packbuf_i_check_add(batch, "", batch && !batch->rows && !rows ? &packbuf_i_null_cell : rows, error);
  if (status) return status;
  memset(&columns, 0, sizeof columns);
  columns.batch = batch;
  for (uint64_t row = 0; row < batch->rows; row++) {
    if (rows[row].kind != PACKBUF_DICT)
      return packbuf_i_fail(error, PACKBUF_WRONG_TYPE, "a row is no dict", PACKBUF_NOWHERE, row);
    if (rows[row].as.dict.count && !rows[row].as.dict.entries)
      return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a dict has no entries", PACKBUF_NOWHERE, row);
    for (size_t i = 0; i < rows[row].as.dict.count; i++) {
      const packbuf_entry *entry = &rows[row].as.dict.entries[i];
      uint32_t index = 0;
      if (entry->key.kind != PACKBUF_STRING)
        return packbuf_i_fail(error, PACKBUF_WRONG_TYPE, "a row has a key that is no string", PACKBUF_NOWHERE, row);
      if (entry->key.as.text.size && !entry->key.as.text.data)
        return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a key has no data", PACKBUF_NOWHERE, row);
      status = packbuf_i_row_field_of(&columns, &entry->key, (uint32_t)i, &index, error);
      if (status) return status;
      if (columns.cells[index][row] != &packbuf_i_missing_cell)
        return packbuf_i_fail(error, PACKBUF_DUPLICATE_NAME, "a row has the same key twice", PACKBUF_NOWHERE, row);
      columns.cells[index][row] = &entry->value;
    }
  }
  for (uint32_t i = 0; i < columns.count; i++) {
    packbuf_i_node *node = &columns.fields[i]->node;
    node->source = PACKBUF_I_FROM_CELLS;
    node->cells.pointers = columns.cells[i];
    node->cells.count = batch->rows;
    packbuf_i_link_field(batch, columns.fields[i]);
  }
  return PACKBUF_OK;
}
