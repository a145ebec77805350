/* core/repeats.c: which rows of a leaf are equal, as section 19 of the spec says for sharing: a row's data as one
 * stretch or run by run, whatever its source; a table of the different rows so far. Only content decides; equal
 * addresses skip a comparison.
 * May use: base, common, arena, value, columns, batch, the codecs' writing halves, pull, rows, layout (pull_next),
 * checksums, key hashes, sha256. Must not know: what becomes of repeats. */

/* Rows up to which all are looked at, without a sample. */
#define PACKBUF_I_SHARE_ALL 1024

/* Most bytes of a row that are loaded before they are looked at. */
#define PACKBUF_I_AHEAD 8192

/* ---- one row ---- */

/* A leaf of one row: row `row` of `node`. */
typedef struct packbuf_i_single {
  packbuf_i_node node;
  packbuf_ragged ragged;
  uint64_t kept;
} packbuf_i_single;

static const packbuf_i_node *packbuf_i_single_row(packbuf_i_single *single, const packbuf_i_node *node, uint64_t row) {
  single->node = *node;
  single->node.rows = 1;
  single->node.bitmap = NULL;
  switch (node->source) {
    case PACKBUF_I_FROM_CELLS:
      single->node.cells.values = packbuf_i_cell(&node->cells, row);
      single->node.cells.pointers = NULL;
      single->node.cells.sparse = NULL;
      break;
    case PACKBUF_I_FROM_TENSOR:
      single->kept = node->kept ? node->kept[row] : row;
      single->node.kept = &single->kept;
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
typedef struct packbuf_i_row_reader {
  packbuf_i_run run; /* what is left of the run in turn */
  int whole;         /* it is the whole row */
  packbuf_i_single single;
  packbuf_i_pull pull;
} packbuf_i_row_reader;

/* The whole of a present row where it is one stretch of memory; 0 where it is not. */
static int packbuf_i_whole_row(const packbuf_i_node *node, uint64_t row, packbuf_i_run *run) {
  const packbuf_tensor *tensor;
  if (node->source != PACKBUF_I_FROM_CELLS) return packbuf_i_row_bytes(node, row, run);
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) return 0;
  if (node->codec >= PACKBUF_CODEC_BYTES_RAGGED) {
    *run = packbuf_i_byte_cell(node, row);
    return 1;
  }
  if (packbuf_i_cell(&node->cells, row)->kind != PACKBUF_TENSOR) return 0;
  tensor = packbuf_i_cell(&node->cells, row)->as.tensor;
  if (tensor->strides) return 0;
  *run = packbuf_i_whole_array(tensor);
  return 1;
}

static void packbuf_i_row_start_bytes(packbuf_i_row_reader *at, const packbuf_i_node *node, uint64_t row) {
  at->whole = packbuf_i_whole_row(node, row, &at->run);
  if (at->whole) return;
  packbuf_i_pull_start(&at->pull, packbuf_i_single_row(&at->single, node, row), PACKBUF_ROLE_DATA, 0);
  at->pull.walk.once = node->source == PACKBUF_I_FROM_TENSOR; /* its rows repeat elements in the same places */
  at->run.size = 0;
}

/* Makes sure that the run in turn has bytes; 0 at the end of the row. */
static int packbuf_i_row_more(packbuf_i_row_reader *at) {
  if (at->run.size == 0 && !at->whole) at->run = packbuf_i_pull_next(&at->pull);
  return at->run.size != 0;
}

/* ---- some rows at a time ---- */

/* Present rows, where the bytes of each are, how many. */
typedef struct packbuf_i_some_rows {
  unsigned count;
  uint64_t rows[PACKBUF_I_ROWS_AT_ONCE], sizes[PACKBUF_I_ROWS_AT_ONCE];
  const uint8_t *bytes[PACKBUF_I_ROWS_AT_ONCE]; /* NULL: not one stretch of memory */
} packbuf_i_some_rows;

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

/* Where rows by offsets are, of items that lie side by side. */
static void packbuf_i_place_ragged(const packbuf_i_node *node, packbuf_i_some_rows *some) {
  const packbuf_ragged *r = node->ragged;
  const uint64_t item = packbuf_i_item_bytes(r);
  for (unsigned i = 0; i < some->count; i++) {
    some->bytes[i] = (const uint8_t *)r->data + packbuf_i_first_item(r, some->rows[i]) * item;
    some->sizes[i] = packbuf_i_items(r, some->rows[i]) * item;
  }
}

/* Where the rows of `some` are. */
static void packbuf_i_place_rows(const packbuf_i_node *node, packbuf_i_some_rows *some) {
  packbuf_i_run run;
  if (node->source == PACKBUF_I_FROM_RAGGED && packbuf_i_side_by_side(node->ragged)) {
    packbuf_i_place_ragged(node, some);
    return;
  }
  for (unsigned i = 0; i < some->count; i++) {
    const int whole = packbuf_i_whole_row(node, some->rows[i], &run);
    some->bytes[i] = !whole ? NULL : run.bytes ? run.bytes : (const uint8_t *)"";
    some->sizes[i] = whole ? run.size : packbuf_i_row_size(node, some->rows[i]);
  }
}

/* The next present rows from *row on, as many as there is room for. */
static void packbuf_i_next_rows(const packbuf_i_node *node, uint64_t *row, packbuf_i_some_rows *some) {
  for (some->count = 0; *row < node->rows && some->count < PACKBUF_I_ROWS_AT_ONCE; ++*row) {
    if (packbuf_i_state(node, *row) > 0) some->rows[some->count++] = *row;
  }
  packbuf_i_place_rows(node, some);
}

/* Loads at most the first `most` bytes of row i, if there is one. */
static void packbuf_i_prefetch_row(const packbuf_i_some_rows *some, unsigned i, uint64_t most) {
  if (i >= some->count || !some->bytes[i]) return;
  for (uint64_t at = 0; at < most && at < some->sizes[i]; at += 64) PACKBUF_I_PREFETCH(some->bytes[i] + at);
}

/* ---- what rows have in common ---- */

/* How many leading bytes two rows have in common; *differ: whether one has other bytes where both have some. */
static uint64_t packbuf_i_common_bytes(const packbuf_i_node *node, uint64_t a, uint64_t b, int *differ) {
  packbuf_i_row_reader x, y;
  uint64_t common = 0;
  *differ = 0;
  packbuf_i_row_start_bytes(&x, node, a);
  packbuf_i_row_start_bytes(&y, node, b);
  while (packbuf_i_row_more(&x) && packbuf_i_row_more(&y)) {
    const uint64_t size = x.run.size < y.run.size ? x.run.size : y.run.size;
    const uint64_t same = packbuf_i_common(x.run.bytes, y.run.bytes, size);
    common += same;
    *differ = same < size;
    if (*differ) break;
    x.run.bytes += size, x.run.size -= size;
    y.run.bytes += size, y.run.size -= size;
  }
  return common;
}

/* ---- equal rows ---- */

static uint8_t packbuf_i_row_type(const packbuf_i_node *node, uint64_t row) {
  return node->typed && node->source == PACKBUF_I_FROM_CELLS
             ? packbuf_i_cell_type(node, packbuf_i_cell(&node->cells, row))
             : 0;
}

/* Whether two present rows are equal as section 19 says. `*looked`: about how many bytes of each that took. */
static int packbuf_i_rows_equal(const packbuf_i_node *node, uint64_t a, uint64_t b, uint64_t *looked) {
  uint64_t x[PACKBUF_MAX_RANK], y[PACKBUF_MAX_RANK];
  const uint64_t size = *looked = packbuf_i_row_size(node, a);
  int differ;
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    return packbuf_equal(packbuf_i_cell(&node->cells, a), packbuf_i_cell(&node->cells, b));
  if (packbuf_i_row_size(node, b) != size || packbuf_i_row_type(node, a) != packbuf_i_row_type(node, b)) return 0;
  if (packbuf_i_ragged_numbers(node->codec)) {
    const unsigned rank = packbuf_i_cell_dims(node, a, x);
    if (packbuf_i_cell_dims(node, b, y) != rank || memcmp(x, y, rank * sizeof *x) != 0) return 0;
  }
  *looked = packbuf_i_common_bytes(node, a, b, &differ);
  return !differ && (*looked == size || node->source == PACKBUF_I_FROM_TENSOR);
}

/* Two chains, so that the multiplications overlap. */
static uint64_t packbuf_i_hash_64_bytes(uint64_t key, const uint8_t *bytes) {
  uint64_t other = ~key;
  for (unsigned i = 0; i < 64; i += 16) {
    key = (key ^ packbuf_i_load64(bytes + i)) * 0x9E3779B97F4A7C15u;
    other = (other ^ packbuf_i_load64(bytes + i + 8)) * 0xFF51AFD7ED558CCDu;
    key ^= key >> 32;
    other ^= other >> 32;
  }
  return packbuf_i_hash_word(key, other);
}

/* The different rows so far, by key: open addressing. Keys are cheap ones until too much time goes to rows that differ
 * but share a key or a place: then the search begins again with better ones. All but the last can be made to fall in
 * one place. */
typedef enum packbuf_i_row_keys {
  PACKBUF_I_KEYS_CHEAP, /* size, type, shape, a row's first and last 64 bytes; three places inside a long one */
  PACKBUF_I_KEYS_WIDER, /* more places: a long row may be padded at both ends */
  PACKBUF_I_KEYS_FULL,  /* a checksum of all bytes: masks */
  PACKBUF_I_KEYS_STRONG
} packbuf_i_row_keys;

typedef struct packbuf_i_row_table {
  uint64_t *keys, *rows; /* rows: row + 1; 0: free */
  uint64_t mask;
  packbuf_i_row_keys kind;
  uint64_t asked, wasted; /* about how many bytes: of the rows looked up, of what was compared in vain */
} packbuf_i_row_table;

/* Into how many parts a row that is one stretch is divided, its key looking at the start of each but the first: their
 * logarithm. Only rows that lie alike have any: else equal rows, one of them in pieces, would have two keys. */
static unsigned packbuf_i_row_parts(const packbuf_i_row_table *table, const packbuf_i_node *node, uint64_t size) {
  const int alike = node->source == PACKBUF_I_FROM_TENSOR || node->source == PACKBUF_I_FROM_RAGGED;
  if (table->kind == PACKBUF_I_KEYS_WIDER) return alike && size >= 256 ? 4 : 0;
  return alike && size >= 512 ? 2 : 0;
}

/* A key of the first and last 64 bytes of a row of `size`; of one of less than 128, of each byte once. */
static uint64_t packbuf_i_hash_ends(uint64_t key, uint64_t size, const uint8_t *first, const uint8_t *last) {
  uint64_t end;
  if (size < 64) return packbuf_i_hash_word(key, packbuf_i_hash_bytes(first, (size_t)size));
  end = size < 128 ? packbuf_i_hash_bytes(last + (128 - size), (size_t)size - 64) : packbuf_i_hash_64_bytes(1, last);
  return packbuf_i_hash_word(key, packbuf_i_hash_word(packbuf_i_hash_64_bytes(0, first), end));
}

/* Loads what the keys of rows will read. */
static void packbuf_i_prefetch_keys(const packbuf_i_row_table *table, const packbuf_i_node *node,
                                    const packbuf_i_some_rows *some) {
  for (unsigned i = 0; i < some->count; i++) {
    const uint8_t *bytes = some->bytes[i];
    const uint64_t size = some->sizes[i];
    const unsigned parts = packbuf_i_row_parts(table, node, size);
    if (!bytes || !size) continue;
    PACKBUF_I_PREFETCH(bytes);
    PACKBUF_I_PREFETCH(bytes + (size < 64 ? 0 : size - 64));
    PACKBUF_I_PREFETCH(bytes + size - 1);
    for (unsigned k = 1; k < 1u << parts; k++) PACKBUF_I_PREFETCH(bytes + (size >> parts) * k);
  }
}

/* Of a row in pieces: the key of its ends. */
static uint64_t packbuf_i_pieces_key(const packbuf_i_node *node, uint64_t row, uint64_t key) {
  packbuf_i_row_reader at;
  uint8_t ends[128];
  size_t first = 0; /* bytes of ends[0..64); the last ones of the row end at ends[128] */
  uint64_t total = 0;
  for (packbuf_i_row_start_bytes(&at, node, row); packbuf_i_row_more(&at); at.run.size = 0) {
    const size_t head = at.run.size < 64 - first ? (size_t)at.run.size : 64 - first;
    const size_t tail = at.run.size < 64 ? (size_t)at.run.size : 64;
    memcpy(ends + first, at.run.bytes, head);
    memmove(ends + 64, ends + 64 + tail, 64 - tail);
    memcpy(ends + 128 - tail, at.run.bytes + at.run.size - tail, tail);
    first += head;
    total += at.run.size;
  }
  return packbuf_i_hash_ends(key, total, ends, ends + 64);
}

/* A key that costs a few cache lines. */
static uint64_t packbuf_i_row_key(const packbuf_i_row_table *table, const packbuf_i_node *node,
                                  const packbuf_i_some_rows *some, unsigned i, uint64_t key) {
  const uint8_t *bytes = some->bytes[i];
  const uint64_t size = some->sizes[i];
  const unsigned parts = packbuf_i_row_parts(table, node, size);
  if (!bytes) return packbuf_i_pieces_key(node, some->rows[i], key);
  for (unsigned k = 1; k < 1u << parts; k++)
    key = packbuf_i_hash_word(key, packbuf_i_load64(bytes + (size >> parts) * k));
  return packbuf_i_hash_ends(key, size, bytes, size < 64 ? bytes : bytes + (size - 64));
}

/* A key of all of a row's data, for rows that differ inside. */
static uint64_t packbuf_i_row_full_key(const packbuf_i_node *node, uint64_t row, uint64_t key) {
  const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
  packbuf_i_row_reader at;
  uint32_t crc = 0;
  for (packbuf_i_row_start_bytes(&at, node, row); packbuf_i_row_more(&at); at.run.size = 0)
    crc = kernel->crc(crc, at.run.bytes, (size_t)at.run.size);
  return packbuf_i_hash_word(key, crc);
}

/* Rows that differ and have one full key are somebody's work: a key by which nobody finds many of them. */
static uint64_t packbuf_i_row_strong_key(const packbuf_i_node *node, uint64_t row) {
  packbuf_i_row_reader at;
  packbuf_i_sha256 hash;
  uint64_t shape[PACKBUF_MAX_RANK];
  uint8_t digest[32], type = packbuf_i_row_type(node, row);
  packbuf_i_sha256_start(&hash);
  packbuf_i_sha256_add(&hash, &type, 1);
  if (packbuf_i_ragged_numbers(node->codec))
    packbuf_i_sha256_add(&hash, shape, packbuf_i_cell_dims(node, row, shape) * sizeof *shape);
  for (packbuf_i_row_start_bytes(&at, node, row); packbuf_i_row_more(&at); at.run.size = 0)
    packbuf_i_sha256_add(&hash, at.run.bytes, (size_t)at.run.size);
  packbuf_i_sha256_end(&hash, digest);
  return packbuf_i_load64(digest);
}

/* `words` 64-bit words that the next leaf uses again; NULL without memory. */
static uint64_t *packbuf_i_scratch_words(packbuf_i_plan *plan, uint64_t words) {
  uint64_t room = 4096;
  if (words <= plan->scratch_room) return plan->scratch;
  while (room < words) room *= 2;
  plan->scratch_room = 0;
  plan->scratch = room > SIZE_MAX / 8 ? NULL : (uint64_t *)packbuf_arena_alloc(plan->arena, (size_t)room * 8, 8);
  if (plan->scratch) plan->scratch_room = room;
  return plan->scratch;
}

/* Empties the table for the search that begins, or begins again. */
static void packbuf_i_row_table_clear(packbuf_i_row_table *table, packbuf_i_row_keys kind) {
  memset(table->rows, 0, (size_t)(table->mask + 1) * sizeof *table->rows);
  table->kind = kind;
  table->asked = table->wasted = 0;
}

/* A table for `rows` rows in the scratch, and `more` words beside it. */
static packbuf_status packbuf_i_row_table_start(packbuf_i_plan *plan, packbuf_i_row_table *table, uint64_t rows,
                                                uint64_t more, uint64_t **words) {
  uint64_t slots = 16;
  while (slots < 2 * rows) slots *= 2;
  table->keys = packbuf_i_scratch_words(plan, 2 * slots + more);
  if (!table->keys) return packbuf_i_plan_no_memory(plan);
  table->rows = table->keys + slots;
  table->mask = slots - 1;
  *words = table->rows + slots;
  packbuf_i_row_table_clear(table, PACKBUF_I_KEYS_CHEAP);
  return PACKBUF_OK;
}

/* The keys of some rows, of the kind that the table has: each of size, type and shape too. */
static void packbuf_i_keys_of(const packbuf_i_row_table *table, const packbuf_i_node *node,
                              const packbuf_i_some_rows *some, uint64_t *keys) {
  const int shaped = packbuf_i_ragged_numbers(node->codec) && node->source != PACKBUF_I_FROM_RAGGED;
  if (table->kind < PACKBUF_I_KEYS_FULL) packbuf_i_prefetch_keys(table, node, some);
  for (unsigned i = 0; i < some->count; i++) {
    const uint64_t row = some->rows[i];
    uint64_t shape[PACKBUF_MAX_RANK], key = packbuf_i_hash_word(some->sizes[i], packbuf_i_row_type(node, row));
    const unsigned rank = shaped ? packbuf_i_cell_dims(node, row, shape) : 0;
    for (unsigned d = 0; d < rank; d++) key = packbuf_i_hash_word(key, shape[d]);
    if (table->kind >= PACKBUF_I_KEYS_FULL) packbuf_i_prefetch_row(some, i + 2, PACKBUF_I_AHEAD);
    keys[i] = table->kind < PACKBUF_I_KEYS_FULL    ? packbuf_i_row_key(table, node, some, i, key)
              : table->kind == PACKBUF_I_KEYS_FULL ? packbuf_i_row_full_key(node, row, key)
                                                   : packbuf_i_row_strong_key(node, row);
  }
}

/* What a look at a row costs, in bytes, whatever its size. */
#define PACKBUF_I_LOOK 512
#define PACKBUF_I_NO_ROW UINT64_MAX

/* The first row of the table that equals `row`; `row` itself, which then joins, when there is none. NO_ROW: the keys
 * tell too little. */
static uint64_t packbuf_i_row_first(packbuf_i_row_table *table, const packbuf_i_node *node, uint64_t row, uint64_t size,
                                    uint64_t key) {
  uint64_t slot = key & table->mask;
  table->asked += size + PACKBUF_I_LOOK;
  for (; table->rows[slot]; slot = (slot + 1) & table->mask) {
    uint64_t looked = 0;
    if (table->keys[slot] != key) {
      table->wasted += PACKBUF_I_LOOK / 64;
    } else {
      if (packbuf_i_rows_equal(node, table->rows[slot] - 1, row, &looked)) return table->rows[slot] - 1;
      table->wasted += looked + PACKBUF_I_LOOK;
    }
    if (table->wasted > 4 * PACKBUF_I_LOOK + table->asked / (table->kind == PACKBUF_I_KEYS_WIDER ? 4 : 16) &&
        table->kind != PACKBUF_I_KEYS_STRONG)
      return PACKBUF_I_NO_ROW;
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

/* How many places of `rows` rows a sample looks at. */
static uint64_t packbuf_i_sample_places(uint64_t rows) { return 64 + rows / 128; }

/* Looks through the sample: *seen of its rows repeat, 4 at most. 0: to be done again, with better keys. */
static int packbuf_i_try_sample(packbuf_i_row_table *table, const packbuf_i_node *node, uint64_t places,
                                unsigned *seen) {
  packbuf_i_some_rows some;
  uint64_t keys[PACKBUF_I_ROWS_AT_ONCE], j = 0;
  for (*seen = 0; j < 2 * places;) {
    for (some.count = 0; j < 2 * places && some.count < PACKBUF_I_ROWS_AT_ONCE; j++) {
      const uint64_t row = packbuf_i_sample(j / 2, node->rows) + j % 2;
      if (row < node->rows && packbuf_i_state(node, row) > 0) some.rows[some.count++] = row;
    }
    packbuf_i_place_rows(node, &some);
    packbuf_i_keys_of(table, node, &some, keys);
    for (unsigned i = 0; i < some.count; i++) {
      const uint64_t first = packbuf_i_row_first(table, node, some.rows[i], some.sizes[i], keys[i]);
      if (first == PACKBUF_I_NO_ROW) return 0;
      if (first != some.rows[i] && ++*seen == 4) return 1;
    }
  }
  return 1;
}

/* Whether rows repeat in the sample; all of few rows are looked at anyway. */
static packbuf_status packbuf_i_sample_repeats(packbuf_i_plan *plan, const packbuf_i_node *node, int *repeats) {
  const uint64_t places = packbuf_i_sample_places(node->rows);
  packbuf_i_row_table table;
  uint64_t *unused;
  unsigned seen = 0;
  packbuf_status status;
  *repeats = node->rows <= PACKBUF_I_SHARE_ALL;
  if (*repeats) return PACKBUF_OK;
  status = packbuf_i_row_table_start(plan, &table, 2 * places, 0, &unused);
  if (status != PACKBUF_OK) return status;
  while (!packbuf_i_try_sample(&table, node, places, &seen))
    packbuf_i_row_table_clear(&table, (packbuf_i_row_keys)(table.kind + 1));
  *repeats = seen == 4;
  return PACKBUF_OK;
}
