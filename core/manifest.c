/* core/manifest.c: manifests: packed buffers of kind 2, whose rows list fragments (section 23).
 * May use: base, arena, utf8, value (dtypes), access, tables (check), find, cells, pieces, batch. Must not know: what
 * fragments hold. */

static packbuf_status packbuf_i_fail_fragment(packbuf_error *error, packbuf_status code, const char *message,
                                              uint64_t fragment) {
  packbuf_i_fail(error, code, message, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (error) error->fragment = fragment;
  return code;
}

/* Adds fragment number `at` to the rows so far; NULL, or what is wrong with it. */
static const char *packbuf_i_fragment_fault(const packbuf_fragment *f, uint64_t *rows) {
  uint64_t end;
  if (f->appends > PACKBUF_APPENDS_FIELDS) return "appends is neither 0 (rows) nor 1 (fields)";
  if (f->head_length < 128 || f->length < f->head_length) return "head_length is below 128 or beyond length";
  if (!packbuf_i_add(f->first_row, f->rows, &end) || end > (uint64_t)1 << 48)
    return "first_row and rows go beyond 2^48";
  if (f->appends == PACKBUF_APPENDS_FIELDS) return end <= *rows ? NULL : "fields for rows that are not there";
  if (f->first_row != *rows) return "first_row is not where the rows so far end";
  *rows = end;
  return NULL;
}

PACKBUF_API packbuf_status packbuf_fragment_of(const packbuf_view *view, const char *key, packbuf_appends appends,
                                               uint64_t first_row, packbuf_fragment *fragment, packbuf_error *error) {
  if (!view || !key || !fragment)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a view, a key and a result must be given", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (view->kind != 1)
    return packbuf_i_fail(error, PACKBUF_FRAGMENT_MISMATCH, "a fragment is no manifest", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  fragment->key.data = key;
  fragment->key.size = strlen(key);
  fragment->length = view->total_length;
  fragment->head_length = view->head_length + view->index_length;
  fragment->first_row = first_row;
  fragment->rows = view->rows;
  fragment->head_checksum = view->head_checksum;
  fragment->appends = (uint8_t)appends;
  return PACKBUF_OK;
}

/* ---- the columns of a manifest ---- */

typedef enum packbuf_i_manifest_field {
  PACKBUF_I_LENGTH,
  PACKBUF_I_HEAD_LENGTH,
  PACKBUF_I_FIRST_ROW,
  PACKBUF_I_ROWS,
  PACKBUF_I_HEAD_CHECKSUM,
  PACKBUF_I_APPENDS,
  PACKBUF_I_MANIFEST_NUMBERS
} packbuf_i_manifest_field;

static const char *const packbuf_i_manifest_names[PACKBUF_I_MANIFEST_NUMBERS] = {"length", "head_length",   "first_row",
                                                                                 "rows",   "head_checksum", "appends"};
static const uint8_t packbuf_i_manifest_bits[PACKBUF_I_MANIFEST_NUMBERS] = {64, 64, 64, 64, 32, 8};

static void packbuf_i_set_number(packbuf_fragment *f, unsigned field, uint64_t number) {
  switch (field) {
    case PACKBUF_I_LENGTH: f->length = number; return;
    case PACKBUF_I_HEAD_LENGTH: f->head_length = number; return;
    case PACKBUF_I_FIRST_ROW: f->first_row = number; return;
    case PACKBUF_I_ROWS: f->rows = number; return;
    case PACKBUF_I_HEAD_CHECKSUM: f->head_checksum = (uint32_t)number; return;
    default: f->appends = (uint8_t)number;
  }
}

static uint64_t packbuf_i_get_number(const packbuf_fragment *f, unsigned field) {
  switch (field) {
    case PACKBUF_I_LENGTH: return f->length;
    case PACKBUF_I_HEAD_LENGTH: return f->head_length;
    case PACKBUF_I_FIRST_ROW: return f->first_row;
    case PACKBUF_I_ROWS: return f->rows;
    case PACKBUF_I_HEAD_CHECKSUM: return f->head_checksum;
    default: return f->appends;
  }
}

static packbuf_status packbuf_i_bad_manifest(packbuf_error *error, const char *message, const char *field,
                                             uint64_t fragment) {
  packbuf_i_fail_fragment(error, PACKBUF_BAD_MANIFEST, message, fragment);
  if (error && field) packbuf_i_set_path(error, field, strlen(field));
  return PACKBUF_BAD_MANIFEST;
}

/* A column that a manifest must have: plain numbers of a dtype, or text (bits 0); no cell null or missing. */
static packbuf_status packbuf_i_manifest_column(const packbuf_view *view, const char *name, unsigned bits,
                                                packbuf_column *column, packbuf_error *error) {
  packbuf_node node;
  packbuf_status status = packbuf_find(view, 0, name, &node, error);
  if (status == PACKBUF_NOT_FOUND)
    return packbuf_i_bad_manifest(error, "a manifest lacks this field", name, PACKBUF_NOWHERE);
  if (status == PACKBUF_OK) status = packbuf_open_column(view, node.index, column, error);
  if (status != PACKBUF_OK) return status;
  if (column->node.rows != view->rows || column->node.kind != PACKBUF_LEAF || column->node.rank != 0 ||
      column->node.form != PACKBUF_FORM_NATURAL ||
      column->node.codec != (bits ? PACKBUF_CODEC_NDARRAY : PACKBUF_CODEC_UTF8_RAGGED) ||
      !packbuf_i_dtype_equal(column->node.dtype, packbuf_dtype_of(PACKBUF_DTYPE_UINT, bits ? bits : 8)))
    return packbuf_i_bad_manifest(error, "the field is not of the type that a manifest's has", name, PACKBUF_NOWHERE);
  if (packbuf_i_there(&column->types))
    return packbuf_i_bad_manifest(error, "a manifest's numbers have no types of their own", name, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_manifest_present(const packbuf_column *column, uint64_t row, const char *name,
                                                 packbuf_error *error) {
  int state = 0;
  packbuf_status status = packbuf_cell_state(column, row, &state, error);
  if (status == PACKBUF_OK && state != 1)
    return packbuf_i_bad_manifest(error, "a manifest has no null or missing cells", name, row);
  return status;
}

static packbuf_status packbuf_i_read_numbers(const packbuf_view *view, unsigned field, packbuf_fragment *list,
                                             packbuf_error *error) {
  const char *name = packbuf_i_manifest_names[field];
  packbuf_column column;
  packbuf_status status = packbuf_i_manifest_column(view, name, packbuf_i_manifest_bits[field], &column, error);
  for (uint64_t row = 0; status == PACKBUF_OK && row < view->rows; row++) {
    uint8_t raw[8] = {0};
    uint64_t at = 0, one = 0;
    status = packbuf_i_manifest_present(&column, row, name, error);
    if (status == PACKBUF_OK) status = packbuf_cell_extent(&column, row, &at, &one, error);
    if (status == PACKBUF_OK) status = packbuf_copy_elements(view, &column.data, at, 1, raw, sizeof raw, error);
    if (status != PACKBUF_OK) return status;
    if (packbuf_i_big_endian())
      packbuf_i_swap(raw, packbuf_i_manifest_bits[field] / 8, packbuf_i_manifest_bits[field] / 8);
    packbuf_i_set_number(&list[row], field, packbuf_i_load64(raw));
  }
  return status;
}

static packbuf_status packbuf_i_read_keys(const packbuf_view *view, packbuf_fragment *list, packbuf_error *error) {
  packbuf_column column;
  uint64_t left = view->limits.decoded_bytes; /* keys that are one row cost time all the same */
  packbuf_status status = packbuf_i_manifest_column(view, "key", 0, &column, error);
  for (uint64_t row = 0; status == PACKBUF_OK && row < view->rows; row++) {
    const void *bytes = NULL;
    uint64_t size = 0;
    status = packbuf_i_manifest_present(&column, row, "key", error);
    if (status == PACKBUF_OK) status = packbuf_cell_bytes(&column, row, &bytes, &size, error);
    if (status != PACKBUF_OK) return status;
    list[row].key.data = (const char *)bytes;
    list[row].key.size = (size_t)size; /* it lies in memory */
    if (size > left) return packbuf_i_broken(error, PACKBUF_RULE_D9, packbuf_i_node_at(view, column.node.index), row);
    left -= size;
    if (packbuf_i_utf8_valid((const uint8_t *)bytes, (size_t)size) != size)
      return packbuf_i_bad_manifest(error, "a key is not UTF-8", "key", row);
  }
  return status;
}

/* Reads the fragments into list, which has room for them. */
static packbuf_status packbuf_i_read_manifest(const packbuf_view *view, packbuf_fragment *list, uint64_t *rows,
                                              packbuf_error *error) {
  packbuf_status status = packbuf_i_read_keys(view, list, error);
  for (unsigned field = 0; status == PACKBUF_OK && field < PACKBUF_I_MANIFEST_NUMBERS; field++)
    status = packbuf_i_read_numbers(view, field, list, error);
  *rows = 0;
  for (uint64_t row = 0; status == PACKBUF_OK && row < view->rows; row++) {
    const char *fault = packbuf_i_fragment_fault(&list[row], rows);
    if (fault) return packbuf_i_bad_manifest(error, fault, NULL, row);
  }
  return status;
}

/* Room for `count` more fragments than a manifest lists. */
static packbuf_status packbuf_i_manifest_room(const packbuf_view *manifest, uint64_t count, packbuf_arena *arena,
                                              packbuf_fragment **list, packbuf_error *error) {
  uint64_t bytes;
  if (manifest && manifest->kind != 2)
    return packbuf_i_fail(error, PACKBUF_WRONG_TYPE, "the packed buffer is no manifest", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (!packbuf_i_add(manifest ? manifest->rows : 0, count, &count) || !packbuf_i_mul(count, sizeof **list, &bytes) ||
      bytes > SIZE_MAX / 2 || (manifest && bytes > manifest->limits.decoded_bytes))
    return packbuf_i_fail(error, PACKBUF_LIMIT, "more fragments than limits.decoded_bytes allows", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  *list = (packbuf_fragment *)packbuf_arena_alloc(arena, (size_t)bytes, 8);
  return *list ? PACKBUF_OK : packbuf_i_no_memory(error);
}

PACKBUF_API packbuf_status packbuf_manifest_read(const packbuf_view *manifest, packbuf_arena *arena,
                                                 const packbuf_fragment **fragments, uint64_t *count, uint64_t *rows,
                                                 packbuf_error *error) {
  packbuf_fragment *list = NULL;
  uint64_t total = 0;
  packbuf_status status;
  if (!manifest || !arena || !fragments || !count)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a manifest, an arena and results must be given",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  status = packbuf_i_check_tables(manifest, error);
  if (status == PACKBUF_OK) status = packbuf_i_manifest_room(manifest, 0, arena, &list, error);
  if (status == PACKBUF_OK) status = packbuf_i_read_manifest(manifest, list, &total, error);
  if (status != PACKBUF_OK) return status;
  *fragments = list;
  *count = manifest->rows;
  if (rows) *rows = total;
  return PACKBUF_OK;
}

/* ---- making one ---- */

static packbuf_status packbuf_i_add_numbers(packbuf_batch *batch, unsigned field, const packbuf_fragment *list,
                                            packbuf_error *error) {
  const size_t size = packbuf_i_manifest_bits[field] / 8u;
  uint64_t shape[1];
  packbuf_tensor tensor;
  uint8_t *data = (uint8_t *)packbuf_i_array(batch->arena, batch->rows, size);
  if (!data) return packbuf_i_no_memory(error);
  for (uint64_t i = 0; i < batch->rows; i++) {
    uint8_t *to = data + i * size, raw[8];
    packbuf_i_store64(raw, packbuf_i_get_number(&list[i], field));
    if (packbuf_i_big_endian()) packbuf_i_swap(raw, size, (unsigned)size);
    memcpy(to, raw, size);
  }
  memset(&tensor, 0, sizeof tensor);
  shape[0] = batch->rows;
  tensor.data = data;
  tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, (unsigned)size * 8);
  tensor.rank = 1;
  tensor.shape = shape;
  return packbuf_add_tensor(batch, packbuf_i_manifest_names[field], &tensor, NULL, error);
}

PACKBUF_API packbuf_status packbuf_manifest_init(packbuf_batch *batch, const packbuf_view *before,
                                                 const packbuf_fragment *fragments, uint64_t count,
                                                 packbuf_arena *arena, const packbuf_options *options,
                                                 packbuf_error *error) {
  packbuf_fragment *list = NULL;
  packbuf_text *keys;
  uint64_t rows = 0, old = before ? before->rows : 0;
  packbuf_status status;
  if (!batch || !arena || (count && !fragments))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a batch, an arena and the fragments must be given",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (before) status = packbuf_i_check_tables(before, error);
  else status = PACKBUF_OK;
  if (status == PACKBUF_OK) status = packbuf_i_manifest_room(before, count, arena, &list, error);
  if (status == PACKBUF_OK && before) status = packbuf_i_read_manifest(before, list, &rows, error);
  if (status != PACKBUF_OK) return status;
  if (count) memcpy(list + old, fragments, (size_t)count * sizeof *list);
  keys = (packbuf_text *)packbuf_i_array(arena, old + count, sizeof *keys);
  if (!keys) return packbuf_i_no_memory(error);
  for (uint64_t i = 0; i < old + count; i++) {
    const char *fault = i < old ? NULL : packbuf_i_fragment_fault(&list[i], &rows);
    if (fault) return packbuf_i_fail_fragment(error, PACKBUF_INVALID_ARGUMENT, fault, i);
    keys[i] = list[i].key;
    if (!keys[i].data) keys[i].data = "";
  }
  status = packbuf_batch_init(batch, old + count, arena, options, error);
  if (status == PACKBUF_OK) status = packbuf_add_strings(batch, "key", keys, error);
  for (unsigned field = 0; status == PACKBUF_OK && field < PACKBUF_I_MANIFEST_NUMBERS; field++)
    status = packbuf_i_add_numbers(batch, field, list, error);
  batch->kind = 2;
  return status;
}
