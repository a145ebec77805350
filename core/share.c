/* core/share.c: row sharing (sections 9 and 19 of the spec): which rows of a leaf are stored once, which 1-D rows are a
 * prefix of another and a rest. The outcome is a second node whose cells are what is stored; masks and the row index
 * come from the first. Only content decides; equal addresses skip a comparison.
 * May use: columns, codecs (packing), layout (constant data), checksums, key hashes. Must not know: the destination. */

#define PACKBUF_I_SHARE_SAMPLE 512 /* positions looked at before all rows are, when there are more than twice as many \
                                    */
#define PACKBUF_I_SHARE_LEAST 4096 /* bytes that sharing has to save */

/* ---- one row ---- */

/* A leaf of one row: row `row` of `node`. */
typedef struct packbuf_i_single {
  packbuf_i_node node;
  packbuf_ragged ragged;
  uint64_t picked;
} packbuf_i_single;

static const packbuf_i_node *packbuf_i_single_row(packbuf_i_single *single, const packbuf_i_node *node, uint64_t row) {
  single->node = *node;
  single->node.rows = 1;
  single->node.bitmap = NULL;
  switch (node->source) {
    case PACKBUF_I_FROM_CELLS:
      single->node.cells.values = packbuf_i_cell(&node->cells, row);
      single->node.cells.pointers = NULL;
      break;
    case PACKBUF_I_FROM_TENSOR:
      single->picked = node->picked ? node->picked[row] : row;
      single->node.picked = &single->picked;
      break;
    case PACKBUF_I_FROM_TENSORS: single->node.tensors += row; break;
    case PACKBUF_I_FROM_TEXT: single->node.texts += row; break;
    case PACKBUF_I_FROM_RAGGED:
      single->ragged = *node->ragged;
      single->ragged.offsets = (const uint8_t *)node->ragged->offsets + row * (node->ragged->offset_bits / 8u);
      if (node->ragged->lengths)
        single->ragged.lengths = (const uint8_t *)node->ragged->lengths + row * (node->ragged->offset_bits / 8u);
      single->node.ragged = &single->ragged;
  }
  return &single->node;
}

/* A present row's data, run by run. */
typedef struct packbuf_i_row_bytes {
  packbuf_i_run run; /* what is left of the run in turn */
  int whole;         /* it is the whole row */
  packbuf_i_single single;
  packbuf_i_pull pull;
} packbuf_i_row_bytes;

/* Bytes of a row of a dense array that lie side by side; 0 when they do not. */
static int packbuf_i_dense_row(const packbuf_i_node *node, uint64_t row, packbuf_i_run *run) {
  const packbuf_tensor *tensor = node->tensors;
  uint64_t size = packbuf_i_dtype_bytes(tensor->dtype);
  for (unsigned d = tensor->rank; d-- > 1;) {
    if (tensor->strides && tensor->shape[d] != 1 && tensor->strides[d] != (int64_t)size) return 0;
    size *= tensor->shape[d];
  }
  if (node->picked) row = node->picked[row];
  run->bytes = (const uint8_t *)tensor->data + (tensor->strides ? tensor->strides[0] : (int64_t)size) * (int64_t)row;
  run->size = size;
  return 1;
}

/* The whole of a present row where it is one stretch of memory; 0 where it is not. */
static int packbuf_i_whole_row(const packbuf_i_node *node, uint64_t row, packbuf_i_run *run) {
  const packbuf_tensor *tensor = NULL;
  if (node->source == PACKBUF_I_FROM_TENSOR) return packbuf_i_dense_row(node, row, run);
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    const packbuf_ragged *r = node->ragged;
    uint64_t item = packbuf_i_dtype_bytes(r->dtype);
    for (unsigned i = 0; i < r->item_rank; i++) item *= r->item_shape[i];
    if (r->item_stride && r->item_stride != (int64_t)item) return 0;
    run->size = packbuf_i_extent(node, row) * packbuf_i_dtype_bytes(r->dtype);
    run->bytes = (const uint8_t *)r->data + packbuf_i_native_offset(r->offsets, r->offset_bits, row) * item;
    return 1;
  }
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) return 0;
  if (node->codec >= PACKBUF_CODEC_BYTES_RAGGED) {
    *run = packbuf_i_byte_cell(node, row);
    return 1;
  }
  if (node->source == PACKBUF_I_FROM_TENSORS) tensor = &node->tensors[row];
  else if (node->source == PACKBUF_I_FROM_CELLS && packbuf_i_cell(&node->cells, row)->kind == PACKBUF_TENSOR)
    tensor = packbuf_i_cell(&node->cells, row)->as.tensor;
  if (!tensor || tensor->strides) return 0;
  *run = packbuf_i_whole_array(tensor);
  return 1;
}

static void packbuf_i_row_start_bytes(packbuf_i_row_bytes *at, const packbuf_i_node *node, uint64_t row) {
  at->whole = packbuf_i_whole_row(node, row, &at->run);
  if (at->whole) return;
  packbuf_i_pull_start(&at->pull, packbuf_i_single_row(&at->single, node, row), PACKBUF_ROLE_DATA, 0);
  at->run.size = 0;
}

/* Makes sure that the run in turn has bytes; 0 at the end of the row. */
static int packbuf_i_row_more(packbuf_i_row_bytes *at) {
  if (at->run.size == 0 && !at->whole) at->run = packbuf_i_pull_next(&at->pull);
  return at->run.size != 0;
}

static uint64_t packbuf_i_common(const uint8_t *a, const uint8_t *b, uint64_t size) {
  uint64_t at = 0;
  if (a == b) return size;
  while (size - at >= 256 && memcmp(a + at, b + at, 256) == 0) at += 256;
  while (size - at >= 8 && memcmp(a + at, b + at, 8) == 0) at += 8;
  while (at < size && a[at] == b[at]) at++;
  return at;
}

/* How many leading bytes two rows have in common. */
static uint64_t packbuf_i_common_bytes(const packbuf_i_node *node, uint64_t a, uint64_t b) {
  packbuf_i_row_bytes x, y;
  uint64_t common = 0;
  packbuf_i_row_start_bytes(&x, node, a);
  packbuf_i_row_start_bytes(&y, node, b);
  while (packbuf_i_row_more(&x) && packbuf_i_row_more(&y)) {
    const uint64_t size = x.run.size < y.run.size ? x.run.size : y.run.size;
    const uint64_t same = packbuf_i_common(x.run.bytes, y.run.bytes, size);
    common += same;
    if (same < size) break;
    x.run.bytes += size, x.run.size -= size;
    y.run.bytes += size, y.run.size -= size;
  }
  return common;
}

/* ---- equal rows ---- */

static int packbuf_i_shaped(const packbuf_i_node *node) {
  return node->codec == PACKBUF_CODEC_RAGGED_TENSOR || node->codec == PACKBUF_CODEC_TYPED_RAGGED;
}

/* Bytes of data of a present row. */
static uint64_t packbuf_i_row_size(const packbuf_i_node *node, uint64_t row) {
  uint64_t size = packbuf_i_dtype_bytes(node->dtype);
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    size = 0;
    for (size_t i = 0; i < cell->as.list.count; i++) size += packbuf_i_item_size(&cell->as.list.items[i]);
    return size;
  }
  if (node->codec != PACKBUF_CODEC_NDARRAY) return packbuf_i_extent(node, row) * size;
  for (unsigned d = 0; d < node->rank; d++) size *= node->shape[d];
  return size;
}

static uint8_t packbuf_i_row_type(const packbuf_i_node *node, uint64_t row) {
  return node->typed && node->source == PACKBUF_I_FROM_CELLS
             ? packbuf_i_cell_type(node, packbuf_i_cell(&node->cells, row))
             : 0;
}

/* Whether two present rows are equal as section 19 says. */
static int packbuf_i_rows_equal(const packbuf_i_node *node, uint64_t a, uint64_t b) {
  uint64_t x[PACKBUF_MAX_RANK], y[PACKBUF_MAX_RANK], size = packbuf_i_row_size(node, a);
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    return packbuf_equal(packbuf_i_cell(&node->cells, a), packbuf_i_cell(&node->cells, b));
  if (packbuf_i_row_size(node, b) != size || packbuf_i_row_type(node, a) != packbuf_i_row_type(node, b)) return 0;
  if (packbuf_i_shaped(node)) {
    const unsigned rank = packbuf_i_cell_dims(node, a, x);
    if (packbuf_i_cell_dims(node, b, y) != rank || memcmp(x, y, rank * sizeof *x) != 0) return 0;
  }
  return packbuf_i_common_bytes(node, a, b) == size;
}

/* A key of a row that costs a few cache lines: its size, type and shape, its first and last 64 bytes. */
static uint64_t packbuf_i_row_key(const packbuf_i_node *node, uint64_t row) {
  uint64_t shape[PACKBUF_MAX_RANK],
      key = packbuf_i_hash_word(packbuf_i_row_size(node, row), packbuf_i_row_type(node, row));
  packbuf_i_row_bytes at;
  uint8_t ends[128];
  size_t first = 0, last = 0; /* bytes of ends[0..64) and ends[64..128) */
  if (packbuf_i_shaped(node)) {
    const unsigned rank = packbuf_i_cell_dims(node, row, shape);
    for (unsigned d = 0; d < rank; d++) key = packbuf_i_hash_word(key, shape[d]);
  }
  for (packbuf_i_row_start_bytes(&at, node, row); packbuf_i_row_more(&at); at.run.size = 0) {
    const size_t head = at.run.size < 64 - first ? (size_t)at.run.size : 64 - first;
    const size_t tail = at.run.size < 64 ? (size_t)at.run.size : 64, kept = last + tail > 64 ? 64 - tail : last;
    memcpy(ends + first, at.run.bytes, head);
    memmove(ends + 64, ends + 64 + last - kept, kept);
    memcpy(ends + 64 + kept, at.run.bytes + at.run.size - tail, tail);
    first += head;
    last = kept + tail;
  }
  memmove(ends + first, ends + 64, last);
  return packbuf_i_hash_word(key, packbuf_i_hash_bytes(ends, first + last));
}

/* A key of all of a row's data, for rows that differ but have the same key. */
static uint64_t packbuf_i_row_full_key(const packbuf_i_node *node, uint64_t row) {
  const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
  packbuf_i_row_bytes at;
  uint32_t crc = 0;
  for (packbuf_i_row_start_bytes(&at, node, row); packbuf_i_row_more(&at); at.run.size = 0)
    crc = kernel->crc(crc, at.run.bytes, (size_t)at.run.size);
  return packbuf_i_hash_word(packbuf_i_row_size(node, row), crc);
}

/* The different rows so far, by key: open addressing. A row whose cheap key is another's stands under its full key. */
typedef struct packbuf_i_row_table {
  uint64_t *keys, *rows; /* rows: row + 1; 0: free */
  uint64_t mask;
} packbuf_i_row_table;

static packbuf_status packbuf_i_row_table_start(packbuf_i_plan *plan, packbuf_i_row_table *table, uint64_t rows) {
  uint64_t slots = 16;
  while (slots < 2 * rows) slots *= 2;
  table->keys = slots > SIZE_MAX / 16
                    ? NULL
                    : (uint64_t *)packbuf_arena_alloc(plan->arena, (size_t)slots * 2 * sizeof *table->keys, 8);
  if (!table->keys) return packbuf_i_plan_no_memory(plan);
  table->rows = table->keys + slots;
  table->mask = slots - 1;
  memset(table->rows, 0, (size_t)slots * sizeof *table->rows);
  return PACKBUF_OK;
}

/* The slot of `key` from `slot` on, or the free one that ends the search. */
static uint64_t packbuf_i_row_slot(const packbuf_i_row_table *table, uint64_t key, uint64_t slot) {
  while (table->rows[slot & table->mask] && table->keys[slot & table->mask] != key) slot++;
  return slot & table->mask;
}

/* The first row of the table that equals `row`; `row` itself, which then joins, when there is none. */
static uint64_t packbuf_i_row_first(const packbuf_i_row_table *table, const packbuf_i_node *node, uint64_t row) {
  uint64_t key = packbuf_i_row_key(node, row) & ~(uint64_t)1, slot = packbuf_i_row_slot(table, key, key >> 1);
  if (table->rows[slot]) {
    if (packbuf_i_rows_equal(node, table->rows[slot] - 1, row)) return table->rows[slot] - 1;
    key = packbuf_i_row_full_key(node, row) | 1;
    slot = packbuf_i_row_slot(table, key, key >> 1);
    while (table->rows[slot]) {
      if (packbuf_i_rows_equal(node, table->rows[slot] - 1, row)) return table->rows[slot] - 1;
      slot = packbuf_i_row_slot(table, key, slot + 1);
    }
  }
  table->keys[slot] = key;
  table->rows[slot] = row + 1;
  return row;
}

/* Position j of the sample among `count`: the high half of splitmix64's output j (Steele, Lea, Flood 2014) x count. */
static uint64_t packbuf_i_sample(uint64_t j, uint64_t count) {
  uint64_t x = (j + 1) * UINT64_C(0x9E3779B97F4A7C15), unused;
  x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
  return packbuf_i_multiply(x ^ x >> 31, count, &unused);
}

/* Whether rows repeat in the sample; all of few rows are looked at anyway. */
static packbuf_status packbuf_i_sample_repeats(packbuf_i_plan *plan, const packbuf_i_node *node, int *repeats) {
  packbuf_i_row_table table;
  unsigned seen = 0;
  packbuf_status status;
  *repeats = node->rows <= 2 * PACKBUF_I_SHARE_SAMPLE;
  if (*repeats) return PACKBUF_OK;
  status = packbuf_i_row_table_start(plan, &table, 2 * PACKBUF_I_SHARE_SAMPLE);
  for (uint64_t j = 0; status == PACKBUF_OK && j < 2 * PACKBUF_I_SHARE_SAMPLE; j++) {
    const uint64_t row = packbuf_i_sample(j / 2, node->rows) + j % 2;
    if (row < node->rows && packbuf_i_state(node, row) > 0) seen += packbuf_i_row_first(&table, node, row) != row;
  }
  *repeats = seen >= 4;
  return status;
}

/* Finds the stored rows: row_index and picked. *stored: how many, or `rows` when sharing does not pay: of `bytes` in
 * all it must save PACKBUF_I_SHARE_LEAST and a quarter. */
static packbuf_status packbuf_i_find_rows(packbuf_i_plan *plan, const packbuf_i_node *node, uint64_t bytes,
                                          uint64_t *row_index, uint64_t *picked, uint64_t *stored) {
  packbuf_i_row_table table;
  uint64_t kept = 8 * node->rows, count = 0;
  packbuf_status status = packbuf_i_row_table_start(plan, &table, node->rows);
  *stored = node->rows;
  if (status != PACKBUF_OK) return status;
  for (uint64_t row = 0; row < node->rows; row++) {
    uint64_t first;
    row_index[row] = 0;
    if (packbuf_i_state(node, row) <= 0) continue;
    first = packbuf_i_row_first(&table, node, row);
    row_index[row] = first == row ? count : row_index[first];
    if (first != row) continue;
    picked[count++] = row;
    kept += packbuf_i_row_size(node, row);
    if (kept > bytes || bytes - kept < PACKBUF_I_SHARE_LEAST || 4 * (bytes - kept) < bytes) return PACKBUF_OK;
  }
  *stored = count;
  return PACKBUF_OK;
}

/* ---- the node of what is stored ---- */

static void *packbuf_i_share_array(packbuf_i_plan *plan, uint64_t count, size_t size) {
  if (count >= SIZE_MAX / size) return NULL;
  return packbuf_arena_alloc(plan->arena, (size_t)(count + 1) * size, 8);
}

/* Offsets and lengths of its own for a node: of the rows `picked` (NULL: all), without their first skips[i] items
 * (NULL: whole). */
static int packbuf_i_pick_ragged(packbuf_i_plan *plan, packbuf_i_node *node, const uint64_t *picked,
                                 const uint64_t *skips, uint64_t count) {
  const packbuf_ragged *from = node->ragged;
  packbuf_ragged *ragged = (packbuf_ragged *)packbuf_i_share_array(plan, 0, sizeof *ragged);
  int64_t *offsets = (int64_t *)packbuf_i_share_array(plan, count, sizeof *offsets);
  int64_t *lengths = (int64_t *)packbuf_i_share_array(plan, count, sizeof *lengths);
  if (!ragged || !offsets || !lengths) return 0;
  *ragged = *from;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t row = picked ? picked[i] : i;
    const uint64_t first = packbuf_i_native_offset(from->offsets, from->offset_bits, row), skip = skips ? skips[i] : 0;
    const uint64_t length = from->lengths ? packbuf_i_native_offset(from->lengths, from->offset_bits, row)
                                          : packbuf_i_native_offset(from->offsets, from->offset_bits, row + 1) - first;
    offsets[i] = (int64_t)(first + skip);
    lengths[i] = (int64_t)(length - skip);
  }
  ragged->offsets = offsets;
  ragged->lengths = lengths;
  ragged->offset_bits = 64;
  node->ragged = ragged;
  return 1;
}

/* Narrows `node`, a copy, to the picked rows, all of them present. */
static packbuf_status packbuf_i_pick_rows(packbuf_i_plan *plan, packbuf_i_node *node, const uint64_t *picked,
                                          uint64_t count) {
  const packbuf_i_node from = *node;
  node->rows = count;
  node->bitmap = NULL;
  node->nulls = node->missing = 0;
  node->picked = picked;
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    if (!packbuf_i_pick_ragged(plan, node, picked, NULL, count)) return packbuf_i_plan_no_memory(plan);
  } else if (node->source == PACKBUF_I_FROM_CELLS) {
    const packbuf_value **cells = (const packbuf_value **)packbuf_i_share_array(plan, count, sizeof *cells);
    if (!cells) return packbuf_i_plan_no_memory(plan);
    for (uint64_t i = 0; i < count; i++) cells[i] = packbuf_i_cell(&from.cells, picked[i]);
    node->cells.pointers = cells;
    node->cells.count = count;
  } else if (node->source == PACKBUF_I_FROM_TENSORS) {
    packbuf_tensor *tensors = (packbuf_tensor *)packbuf_i_share_array(plan, count, sizeof *tensors);
    if (!tensors) return packbuf_i_plan_no_memory(plan);
    for (uint64_t i = 0; i < count; i++) tensors[i] = from.tensors[picked[i]];
    node->tensors = tensors;
  } else if (node->source == PACKBUF_I_FROM_TEXT) {
    packbuf_text *texts = (packbuf_text *)packbuf_i_share_array(plan, count, sizeof *texts);
    if (!texts) return packbuf_i_plan_no_memory(plan);
    for (uint64_t i = 0; i < count; i++) texts[i] = from.texts[picked[i]];
    node->texts = texts;
  }
  return PACKBUF_OK;
}

/* ---- prefixes ---- */

static uint64_t packbuf_i_present_size(const packbuf_i_node *node, uint64_t row) {
  return packbuf_i_state(node, row) > 0 ? packbuf_i_row_size(node, row) : 0;
}

/* Elements that rows i - 1 and i have in common. */
static uint64_t packbuf_i_common_before(const packbuf_i_node *node, uint64_t i) {
  if (packbuf_i_state(node, i - 1) <= 0 || packbuf_i_state(node, i) <= 0) return 0;
  return packbuf_i_common_bytes(node, i - 1, i) / packbuf_i_dtype_bytes(node->dtype);
}

/* Whether the sample promises that prefixes pay. */
static int packbuf_i_sample_prefixes(const packbuf_i_node *node) {
  const uint64_t element = packbuf_i_dtype_bytes(node->dtype);
  uint64_t common = 0, bytes = 0;
  if (node->rows <= 2 * PACKBUF_I_SHARE_SAMPLE) return 1;
  for (uint64_t j = 0; j < PACKBUF_I_SHARE_SAMPLE; j++) {
    const uint64_t i = 1 + packbuf_i_sample(j, node->rows - 1);
    common += packbuf_i_common_before(node, i) * element;
    bytes += packbuf_i_present_size(node, i);
  }
  return 8 * common >= bytes;
}

/* Gives the rows of a group, from `begin` to `end`, the prefixes that they have in common with its first longest row.
 * common[i]: elements that rows i - 1 and i share. Returns the elements saved. */
static uint64_t packbuf_i_lead_group(const packbuf_i_node *node, const uint64_t *common, uint64_t begin, uint64_t end,
                                     uint64_t *leaders, uint64_t *lengths) {
  uint64_t leader = begin, longest = packbuf_i_present_size(node, begin), saved = 0, least = UINT64_MAX;
  for (uint64_t i = begin + 1; i < end; i++) {
    const uint64_t size = packbuf_i_present_size(node, i);
    if (size > longest) leader = i, longest = size;
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
static int packbuf_i_find_prefixes(const packbuf_i_node *node, uint64_t bytes, uint64_t *common, uint64_t *leaders,
                                   uint64_t *lengths) {
  const uint64_t element = packbuf_i_dtype_bytes(node->dtype), cost = 16 * node->rows;
  uint64_t begin = 0, largest = 0, saved = 0;
  common[0] = 0;
  for (uint64_t i = 1; i <= node->rows; i++) {
    if (i < node->rows) {
      common[i] = packbuf_i_common_before(node, i);
      if (common[i] * element >= 64 && 2 * common[i] >= largest) {
        if (common[i] > largest) largest = common[i];
        continue;
      }
    }
    saved += packbuf_i_lead_group(node, common, begin, i, leaders, lengths);
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
  const packbuf_value **cells = (const packbuf_value **)packbuf_i_share_array(plan, node->rows, sizeof *cells);
  if (!cells) return 0;
  for (uint64_t row = 0; row < node->rows; row++) {
    packbuf_value *cell;
    cells[row] = packbuf_i_cell(&from, row);
    if (!skips[row]) continue;
    cell = (packbuf_value *)packbuf_i_share_array(plan, 0, sizeof *cell);
    if (!cell) return 0;
    *cell = *cells[row];
    if (cell->kind == PACKBUF_LIST) {
      cell->as.list.items += skips[row];
      cell->as.list.count -= (size_t)skips[row];
    } else {
      packbuf_tensor *tensor = (packbuf_tensor *)packbuf_i_share_array(plan, 0, sizeof *tensor);
      uint64_t *shape = (uint64_t *)packbuf_i_share_array(plan, 0, sizeof *shape);
      if (!tensor || !shape) return 0;
      *tensor = *cell->as.tensor;
      packbuf_i_trim_tensor(tensor, shape, skips[row]);
      cell->as.tensor = tensor;
    }
    cells[row] = cell;
  }
  node->cells.pointers = cells;
  return 1;
}

/* Takes the prefixes off the rows of `node`, a copy. */
static packbuf_status packbuf_i_trim_rows(packbuf_i_plan *plan, packbuf_i_node *node, const uint64_t *skips) {
  int ok = 1;
  if (node->source == PACKBUF_I_FROM_RAGGED) {
    ok = packbuf_i_pick_ragged(plan, node, NULL, skips, node->rows);
  } else if (node->source == PACKBUF_I_FROM_TENSORS) {
    packbuf_tensor *tensors = (packbuf_tensor *)packbuf_i_share_array(plan, node->rows, sizeof *tensors);
    uint64_t *shapes = (uint64_t *)packbuf_i_share_array(plan, node->rows, sizeof *shapes);
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
  for (uint64_t row = 0; row < node->rows; row++) sum += packbuf_i_present_size(node, row);
  return sum;
}

/* node->stored becomes a copy of it, to be changed. */
static packbuf_status packbuf_i_stored_copy(packbuf_i_plan *plan, packbuf_i_node *node) {
  packbuf_i_node *copy = (packbuf_i_node *)packbuf_i_share_array(plan, 0, sizeof *copy);
  if (!copy) return packbuf_i_plan_no_memory(plan);
  *copy = *node;
  node->stored = copy;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_share_rows(packbuf_i_plan *plan, packbuf_i_node *node, uint64_t bytes) {
  uint64_t *row_index, *picked, stored = 0;
  int repeats = 0;
  packbuf_status status;
  if (bytes < PACKBUF_I_SHARE_LEAST || bytes / 32 * 3 + 3 < node->rows) return PACKBUF_OK; /* 3 U >= 32 rows to pay */
  status = packbuf_i_sample_repeats(plan, node, &repeats);
  if (status != PACKBUF_OK || !repeats) return status;
  row_index = (uint64_t *)packbuf_i_share_array(plan, node->rows, sizeof *row_index);
  picked = (uint64_t *)packbuf_i_share_array(plan, node->rows, sizeof *picked);
  if (!row_index || !picked) return packbuf_i_plan_no_memory(plan);
  status = packbuf_i_find_rows(plan, node, bytes, row_index, picked, &stored);
  if (status != PACKBUF_OK || stored == node->rows) return status;
  status = packbuf_i_stored_copy(plan, node);
  if (status != PACKBUF_OK) return status;
  node->row_index = row_index;
  status = packbuf_i_pick_rows(plan, node->stored, picked, stored);
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED || status != PACKBUF_OK) return status;
  node->stored->elements = packbuf_i_all_sizes(node->stored) / packbuf_i_dtype_bytes(node->dtype);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_share_prefixes(packbuf_i_plan *plan, packbuf_i_node *node) {
  const packbuf_i_node *from = node->stored;
  const uint64_t bytes = packbuf_i_all_sizes(from);
  uint64_t *arrays, *leaders, *lengths;
  packbuf_status status;
  if (from->rows < 2 || bytes < PACKBUF_I_SHARE_LEAST + 16 * from->rows || !packbuf_i_sample_prefixes(from))
    return PACKBUF_OK;
  arrays = (uint64_t *)packbuf_i_share_array(plan, from->rows, 3 * sizeof *arrays);
  if (!arrays) return packbuf_i_plan_no_memory(plan);
  leaders = arrays + from->rows;
  lengths = leaders + from->rows;
  if (!packbuf_i_find_prefixes(from, bytes, arrays, leaders, lengths)) return PACKBUF_OK;
  if (node->stored == node) {
    status = packbuf_i_stored_copy(plan, node);
    if (status != PACKBUF_OK) return status;
  }
  node->stored->prefix_row = leaders;
  node->stored->prefix_length = lengths;
  return packbuf_i_trim_rows(plan, node->stored, lengths);
}

/* Whether a leaf's data elements all have the same bits: they are stored as a constant anyway. */
static int packbuf_i_constant_data(const packbuf_i_node *node) {
  packbuf_i_planned data;
  if (node->codec > PACKBUF_CODEC_TYPED_RAGGED) return 0;
  memset(&data, 0, sizeof data);
  data.node = node;
  data.role = PACKBUF_ROLE_DATA;
  data.dtype = node->dtype;
  return packbuf_i_is_constant(&data);
}

static packbuf_status packbuf_i_share(packbuf_i_plan *plan, packbuf_i_node *node) {
  uint64_t bytes;
  packbuf_status status;
  if (!plan->options->row_sharing || node->flags & PACKBUF_KEEP_PLAIN || node->device ||
      node->codec < PACKBUF_CODEC_NDARRAY ||
      (node->codec > PACKBUF_CODEC_UTF8_RAGGED && node->codec != PACKBUF_CODEC_OPAQUE_RAGGED))
    return PACKBUF_OK;
  bytes = node->codec == PACKBUF_CODEC_NDARRAY || node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED
              ? packbuf_i_all_sizes(node)
              : node->elements * packbuf_i_dtype_bytes(node->dtype);
  if (bytes < PACKBUF_I_SHARE_LEAST || packbuf_i_constant_data(node)) return PACKBUF_OK;
  status = packbuf_i_share_rows(plan, node, bytes);
  if (status == PACKBUF_OK && packbuf_i_shaped(node) && node->rank == 1 && !node->mixed_ranks && !node->typed)
    status = packbuf_i_share_prefixes(plan, node);
  return status;
}
