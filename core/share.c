/* core/share.c: row sharing (sections 9 and 19 of the spec): which rows of a leaf are stored once, which 1-D rows are a
 * prefix of another and a rest. The outcome is a second node whose cells are what is stored; masks and the row index
 * come from the first.
 * May use: arena, batch, columns, pull, repeats, layout (constant data), packing (what packs small).
 * Must not know: the destination. */

#define PACKBUF_I_SHARE_LEAST 4096               /* bytes that sharing has to save */
#define PACKBUF_I_SHARE_MOST ((uint64_t)1 << 24) /* rows: the search keeps 32 to 80 bytes a row */

/* ---- repeated rows ---- */

/* The stored rows of a leaf. */
typedef struct packbuf_i_stored_rows {
  uint64_t *row_index, *kept; /* in the scratch */
  uint64_t count, bytes;      /* how many there are, and their size */
} packbuf_i_stored_rows;

/* Looks through the rows, until sharing cannot pay. 0: to be done again, with better keys. */
static int packbuf_i_try_rows(packbuf_i_row_table *table, const packbuf_i_node *node, uint64_t bytes,
                              packbuf_i_stored_rows *out) {
  packbuf_i_some_rows some;
  uint64_t keys[PACKBUF_I_ROWS_AT_ONCE], count = 0, next = 0;
  out->count = node->rows;
  out->bytes = 0;
  while (next < node->rows) {
    packbuf_i_next_rows(node, &next, &some);
    packbuf_i_keys_of(table, node, &some, keys);
    for (unsigned i = 0; i < some.count; i++) {
      const uint64_t row = some.rows[i], first = packbuf_i_row_first(table, node, row, some.sizes[i], keys[i]);
      uint64_t cost;
      if (first == PACKBUF_I_NO_ROW) return 0;
      out->row_index[row] = first == row ? count : out->row_index[first];
      if (first != row) { /* so may the next */
        packbuf_i_prefetch_row(&some, i + 2, PACKBUF_I_AHEAD);
        continue;
      }
      out->kept[count++] = row;
      out->bytes += some.sizes[i];
      cost = out->bytes + 8 * node->rows;
      if (cost > bytes || bytes - cost < PACKBUF_I_SHARE_LEAST || 4 * (bytes - cost) < bytes) return 1;
    }
  }
  out->count = count;
  return 1;
}

/* Finds the stored rows. Their count is that of all rows when sharing does not pay: of `bytes` in all it must save
 * PACKBUF_I_SHARE_LEAST and a quarter. */
static packbuf_status packbuf_i_find_rows(packbuf_i_plan *plan, const packbuf_i_node *node, uint64_t bytes,
                                          packbuf_i_stored_rows *out) {
  packbuf_i_row_table table;
  packbuf_status status = packbuf_i_row_table_start(plan, &table, node->rows, 2 * node->rows, &out->row_index);
  if (status != PACKBUF_OK) return status;
  out->kept = out->row_index + node->rows;
  memset(out->row_index, 0, (size_t)node->rows * sizeof *out->row_index); /* of absent rows */
  while (!packbuf_i_try_rows(&table, node, bytes, out))
    packbuf_i_row_table_clear(&table, (packbuf_i_row_keys)(table.kind + 1));
  return PACKBUF_OK;
}

/* ---- the node of what is stored ---- */

/* A copy of numbers in the scratch, to keep. */
static uint64_t *packbuf_i_share_words(packbuf_i_plan *plan, const uint64_t *words, uint64_t count) {
  uint64_t *copy = (uint64_t *)packbuf_i_array(plan->arena, count, sizeof *copy);
  if (copy && count) memcpy(copy, words, (size_t)count * sizeof *copy);
  return copy;
}

/* Offsets and lengths of its own for a node: of the rows `kept` (NULL: all), without their first skips[i] items
 * (NULL: whole). */
static int packbuf_i_keep_ragged(packbuf_i_plan *plan, packbuf_i_node *node, const uint64_t *kept,
                                 const uint64_t *skips, uint64_t count) {
  const packbuf_ragged *from = node->ragged;
  packbuf_ragged *ragged = (packbuf_ragged *)packbuf_i_array(plan->arena, 1, sizeof *ragged);
  int64_t *offsets = (int64_t *)packbuf_i_array(plan->arena, count, sizeof *offsets);
  int64_t *lengths = (int64_t *)packbuf_i_array(plan->arena, count, sizeof *lengths);
  if (!ragged || !offsets || !lengths) return 0;
  *ragged = *from;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t row = kept ? kept[i] : i;
    const uint64_t skip = skips ? skips[i] : 0;
    offsets[i] = (int64_t)(packbuf_i_first_item(from, row) + skip);
    lengths[i] = (int64_t)(packbuf_i_items(from, row) - skip);
  }
  ragged->offsets = offsets;
  ragged->lengths = lengths;
  ragged->offset_bits = 64;
  node->ragged = ragged;
  return 1;
}

/* Narrows `node`, a copy, to the kept rows, all of them present. */
static packbuf_status packbuf_i_keep_rows(packbuf_i_plan *plan, packbuf_i_node *node, const uint64_t *kept,
                                          uint64_t count) {
  const packbuf_i_node from = *node;
  node->rows = count;
  node->bitmap = NULL;
  node->nulls = node->missing = 0;
  node->kept = kept;
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    if (!packbuf_i_keep_ragged(plan, node, kept, NULL, count)) return packbuf_i_plan_no_memory(plan);
  } else if (node->source == PACKBUF_I_FROM_CELLS) {
    const packbuf_value **cells = (const packbuf_value **)packbuf_i_array(plan->arena, count, sizeof *cells);
    if (!cells) return packbuf_i_plan_no_memory(plan);
    for (uint64_t i = 0; i < count; i++) cells[i] = packbuf_i_cell(&from.cells, kept[i]);
    node->cells.pointers = cells;
    node->cells.sparse = NULL;
    node->cells.count = count;
  } else if (node->source == PACKBUF_I_FROM_TENSORS) {
    packbuf_tensor *tensors = (packbuf_tensor *)packbuf_i_array(plan->arena, count, sizeof *tensors);
    if (!tensors) return packbuf_i_plan_no_memory(plan);
    for (uint64_t i = 0; i < count; i++) tensors[i] = from.tensors[kept[i]];
    node->tensors = tensors;
  } else if (node->source == PACKBUF_I_FROM_TEXT) {
    packbuf_text *texts = (packbuf_text *)packbuf_i_array(plan->arena, count, sizeof *texts);
    if (!texts) return packbuf_i_plan_no_memory(plan);
    for (uint64_t i = 0; i < count; i++) texts[i] = from.texts[kept[i]];
    node->texts = texts;
  }
  return PACKBUF_OK;
}

/* ---- prefixes ---- */

static uint64_t packbuf_i_present_size(const packbuf_i_node *node, uint64_t row) {
  return packbuf_i_state(node, row) > 0 ? packbuf_i_row_size(node, row) : 0;
}

/* Elements that rows i - 1 and i of `some` have in common; none unless they are neighbours. */
static uint64_t packbuf_i_common_before(const packbuf_i_node *node, const packbuf_i_some_rows *some, unsigned i) {
  const uint64_t less = some->sizes[i] < some->sizes[i - 1] ? some->sizes[i] : some->sizes[i - 1];
  uint64_t common;
  int differ;
  if (some->rows[i - 1] + 1 != some->rows[i]) return 0;
  common = some->bytes[i] && some->bytes[i - 1]
               ? packbuf_i_common(some->bytes[i - 1], some->bytes[i], less)
               : packbuf_i_common_bytes(node, some->rows[i - 1], some->rows[i], &differ);
  return common / packbuf_i_dtype_bytes(node->dtype);
}

/* Whether the sample promises that prefixes pay. */
static int packbuf_i_sample_prefixes(const packbuf_i_node *node) {
  const uint64_t element = packbuf_i_dtype_bytes(node->dtype), places = packbuf_i_sample_places(node->rows);
  packbuf_i_some_rows some;
  uint64_t common = 0, bytes = 0, j = 0;
  if (node->rows <= PACKBUF_I_SHARE_ALL) return 1;
  while (j < places) {
    for (some.count = 0; j < places && some.count < PACKBUF_I_ROWS_AT_ONCE; j++) {
      const uint64_t i = 1 + packbuf_i_sample(j, node->rows - 1);
      const int before = packbuf_i_state(node, i - 1) > 0, present = packbuf_i_state(node, i) > 0;
      if (before && present) some.rows[some.count++] = i - 1, some.rows[some.count++] = i;
      else if (present) bytes += packbuf_i_row_size(node, i);
    }
    packbuf_i_place_rows(node, &some);
    for (unsigned i = 0; i < some.count; i++) packbuf_i_prefetch_row(&some, i, 512);
    for (unsigned i = 1; i < some.count; i += 2) {
      common += packbuf_i_common_before(node, &some, i) * element;
      bytes += some.sizes[i];
    }
  }
  return 8 * common >= bytes;
}

/* The size of each row, and how many elements it has in common with the one before it. */
static void packbuf_i_common_rows(const packbuf_i_node *node, uint64_t *sizes, uint64_t *common) {
  const uint64_t element = packbuf_i_dtype_bytes(node->dtype);
  packbuf_i_some_rows some;
  uint64_t next = 0, ahead = 256;
  memset(sizes, 0, (size_t)node->rows * sizeof *sizes);
  memset(common, 0, (size_t)node->rows * sizeof *common);
  for (;;) {
    packbuf_i_next_rows(node, &next, &some);
    for (unsigned i = 0; i < some.count; i++) {
      packbuf_i_prefetch_row(&some, i + 4, ahead < PACKBUF_I_AHEAD ? ahead : PACKBUF_I_AHEAD);
      sizes[some.rows[i]] = some.sizes[i];
      if (i) common[some.rows[i]] = packbuf_i_common_before(node, &some, i);
      ahead = 256 + common[some.rows[i]] * element; /* it is likely to go on so */
    }
    if (next == node->rows) return;
    next = some.rows[some.count - 1];
  }
}

/* Gives the rows of a group, from `begin` to `end`, the prefixes that they have in common with its first longest row.
 * common[i]: elements that rows i - 1 and i share. Returns the elements saved. */
static uint64_t packbuf_i_lead_group(const uint64_t *sizes, const uint64_t *common, uint64_t begin, uint64_t end,
                                     uint64_t *leaders, uint64_t *lengths) {
  uint64_t leader = begin, saved = 0, least = UINT64_MAX;
  for (uint64_t i = begin + 1; i < end; i++) {
    if (sizes[i] > sizes[leader]) leader = i;
  }
  leaders[leader] = lengths[leader] = 0;
  for (uint64_t i = leader; i-- > begin; saved += least) {
    if (common[i + 1] < least) least = common[i + 1];
    leaders[i] = leader, lengths[i] = least;
  }
  least = UINT64_MAX;
  for (uint64_t i = leader + 1; i < end; i++, saved += least) {
    if (common[i] < least) least = common[i];
    leaders[i] = leader, lengths[i] = least;
  }
  return saved;
}

/* Finds groups of rows with common prefixes; 1 when sharing them pays. */
static int packbuf_i_find_prefixes(const packbuf_i_node *node, uint64_t bytes, uint64_t *sizes, uint64_t *common,
                                   uint64_t *leaders, uint64_t *lengths) {
  const uint64_t element = packbuf_i_dtype_bytes(node->dtype), cost = 16 * node->rows;
  uint64_t begin = 0, largest = 0, saved = 0;
  packbuf_i_common_rows(node, sizes, common);
  for (uint64_t i = 1; i <= node->rows; i++) {
    if (i < node->rows && common[i] * element >= 64 && 2 * common[i] >= largest) {
      if (common[i] > largest) largest = common[i];
      continue;
    }
    saved += packbuf_i_lead_group(sizes, common, begin, i, leaders, lengths);
    begin = i;
    largest = 0;
  }
  saved *= element;
  return saved >= cost + PACKBUF_I_SHARE_LEAST && 8 * (saved - cost) >= bytes;
}

/* A row without its first `skip` elements. */
static void packbuf_i_trim_tensor(packbuf_tensor *tensor, uint64_t *shape, uint64_t skip) {
  const int64_t stride = tensor->strides ? tensor->strides[0] : (int64_t)packbuf_i_dtype_bytes(tensor->dtype);
  *shape = tensor->shape[0] - skip;
  tensor->data = (const uint8_t *)tensor->data + stride * (int64_t)skip;
  tensor->shape = shape;
}

/* Trims dynamic cells: lists and tensors. */
static int packbuf_i_trim_cells(packbuf_i_plan *plan, packbuf_i_node *node, const uint64_t *skips) {
  const packbuf_i_rows from = node->cells;
  const packbuf_value **cells = (const packbuf_value **)packbuf_i_array(plan->arena, node->rows, sizeof *cells);
  if (!cells) return 0;
  for (uint64_t row = 0; row < node->rows; row++) {
    packbuf_value *cell;
    cells[row] = packbuf_i_cell(&from, row);
    if (!skips[row]) continue;
    cell = (packbuf_value *)packbuf_i_array(plan->arena, 1, sizeof *cell);
    if (!cell) return 0;
    *cell = *cells[row];
    if (cell->kind == PACKBUF_LIST) {
      cell->as.list.items += skips[row];
      cell->as.list.count -= (size_t)skips[row];
    } else {
      packbuf_tensor *tensor = (packbuf_tensor *)packbuf_i_array(plan->arena, 1, sizeof *tensor);
      uint64_t *shape = (uint64_t *)packbuf_i_array(plan->arena, 1, sizeof *shape);
      if (!tensor || !shape) return 0;
      *tensor = *cell->as.tensor;
      packbuf_i_trim_tensor(tensor, shape, skips[row]);
      cell->as.tensor = tensor;
    }
    cells[row] = cell;
  }
  node->cells.pointers = cells;
  node->cells.sparse = NULL;
  return 1;
}

/* Takes the prefixes off the rows of `node`, a copy. */
static packbuf_status packbuf_i_trim_rows(packbuf_i_plan *plan, packbuf_i_node *node, const uint64_t *skips) {
  int ok = 1;
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    ok = packbuf_i_keep_ragged(plan, node, NULL, skips, node->rows);
  } else if (node->source == PACKBUF_I_FROM_TENSORS) {
    packbuf_tensor *tensors = (packbuf_tensor *)packbuf_i_array(plan->arena, node->rows, sizeof *tensors);
    uint64_t *shapes = (uint64_t *)packbuf_i_array(plan->arena, node->rows, sizeof *shapes);
    ok = tensors && shapes;
    for (uint64_t row = 0; ok && row < node->rows; row++) {
      tensors[row] = node->tensors[row];
      if (skips[row]) packbuf_i_trim_tensor(&tensors[row], &shapes[row], skips[row]);
    }
    node->tensors = tensors;
  } else {
    ok = packbuf_i_trim_cells(plan, node, skips);
  }
  for (uint64_t row = 0; row < node->rows; row++) node->elements -= skips[row];
  return ok ? PACKBUF_OK : packbuf_i_plan_no_memory(plan);
}

/* ---- the decision ---- */

/* Sum of the sizes of a leaf's present rows. */
static uint64_t packbuf_i_all_sizes(const packbuf_i_node *node) {
  uint64_t sum = 0;
  if (node->codec == PACKBUF_CODEC_NDARRAY)
    return packbuf_i_mul(node->rows - node->nulls - node->missing, packbuf_i_row_size(node, 0), &sum) ? sum : 0;
  if (node->codec != PACKBUF_CODEC_MEDIA_LIST_RAGGED) return node->elements * packbuf_i_dtype_bytes(node->dtype);
  for (uint64_t row = 0; row < node->rows; row++) sum += packbuf_i_present_size(node, row);
  return sum;
}

/* Makes node->stored a copy of the node, to be changed. */
static packbuf_status packbuf_i_stored_copy(packbuf_i_plan *plan, packbuf_i_node *node) {
  packbuf_i_node *copy = (packbuf_i_node *)packbuf_i_array(plan->arena, 1, sizeof *copy);
  if (!copy) return packbuf_i_plan_no_memory(plan);
  *copy = *node;
  node->stored = copy;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_share_rows(packbuf_i_plan *plan, packbuf_i_node *node, uint64_t bytes) {
  packbuf_i_stored_rows found;
  int repeats = 0;
  packbuf_status status;
  if (bytes / 32 * 3 + 3 < node->rows) return PACKBUF_OK; /* to pay, 3 U >= 32 rows */
  status = packbuf_i_sample_repeats(plan, node, &repeats);
  if (status != PACKBUF_OK || !repeats) return status;
  status = packbuf_i_find_rows(plan, node, bytes, &found);
  if (status != PACKBUF_OK || found.count == node->rows) return status;
  status = packbuf_i_stored_copy(plan, node);
  if (status != PACKBUF_OK) return status;
  node->row_index = packbuf_i_share_words(plan, found.row_index, node->rows);
  found.kept = packbuf_i_share_words(plan, found.kept, found.count);
  if (!node->row_index || !found.kept) return packbuf_i_plan_no_memory(plan);
  node->stored->elements = found.bytes / packbuf_i_dtype_bytes(node->dtype);
  return packbuf_i_keep_rows(plan, node->stored, found.kept, found.count);
}

static packbuf_status packbuf_i_share_prefixes(packbuf_i_plan *plan, packbuf_i_node *node) {
  const packbuf_i_node *from = node->stored;
  const uint64_t bytes = packbuf_i_all_sizes(from);
  uint64_t *sizes, *common, *leaders, *lengths;
  packbuf_status status;
  if (from->rows < 2 || bytes < PACKBUF_I_SHARE_LEAST + 16 * from->rows || !packbuf_i_sample_prefixes(from))
    return PACKBUF_OK;
  sizes = packbuf_i_scratch_words(plan, 4 * from->rows);
  if (!sizes) return packbuf_i_plan_no_memory(plan);
  common = sizes + from->rows;
  leaders = common + from->rows;
  lengths = leaders + from->rows;
  if (!packbuf_i_find_prefixes(from, bytes, sizes, common, leaders, lengths)) return PACKBUF_OK;
  if (node->stored == node) {
    status = packbuf_i_stored_copy(plan, node);
    if (status != PACKBUF_OK) return status;
  }
  node->stored->prefix_row = leaders = packbuf_i_share_words(plan, leaders, from->rows);
  node->stored->prefix_length = lengths = packbuf_i_share_words(plan, lengths, from->rows);
  if (!leaders || !lengths) return packbuf_i_plan_no_memory(plan);
  return packbuf_i_trim_rows(plan, node->stored, lengths);
}

/* Whether a leaf's data elements all have the same bits: they are stored as a constant anyway. */
static int packbuf_i_constant_data(packbuf_i_node *node) {
  packbuf_i_planned data;
  if (node->codec > PACKBUF_CODEC_TYPED_RAGGED) return 0;
  memset(&data, 0, sizeof data);
  data.node = node;
  data.role = PACKBUF_ROLE_DATA;
  data.dtype = node->dtype;
  node->constant = packbuf_i_is_constant(&data) ? 2 : 1;
  return node->constant == 2;
}

/* Whether a leaf's data, all its rows, pack so small that sharing rows could save next to nothing: core/packing.c. */
static packbuf_status packbuf_i_packs_small(packbuf_i_plan *plan, packbuf_i_node *node, uint64_t bytes, int *small);

static packbuf_status packbuf_i_share(packbuf_i_plan *plan, packbuf_i_node *node) {
  uint64_t bytes;
  int small;
  packbuf_status status;
  if (!plan->options->row_sharing || node->flags & PACKBUF_KEEP_PLAIN || node->device ||
      node->rows > PACKBUF_I_SHARE_MOST || node->codec < PACKBUF_CODEC_NDARRAY ||
      (node->codec > PACKBUF_CODEC_UTF8_RAGGED && node->codec != PACKBUF_CODEC_OPAQUE_RAGGED))
    return PACKBUF_OK;
  bytes = packbuf_i_all_sizes(node);
  if (bytes < PACKBUF_I_SHARE_LEAST || packbuf_i_constant_data(node)) return PACKBUF_OK;
  status = packbuf_i_packs_small(plan, node, bytes, &small);
  if (status != PACKBUF_OK || small) return status;
  status = packbuf_i_share_rows(plan, node, bytes);
  if (status == PACKBUF_OK && packbuf_i_ragged_numbers(node->codec) && node->rank == 1 && !node->mixed_ranks &&
      !node->typed)
    status = packbuf_i_share_prefixes(plan, node);
  return status;
}
