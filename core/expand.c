/* core/expand.c: structure expansion (section 17 of the spec): a column of dicts or short lists becomes a node with a
 * column for each key or item. Keys come in first-seen order; rows mostly have the same keys in the same order, so the
 * key after the last one is tried first.
 * May use: columns, leaf inference, schema entries. Must not know: codecs, layout. */

/* Rows looked at before memory is taken: most columns that cannot expand show it there. */
#define PACKBUF_I_PROBE_ROWS 64
#define PACKBUF_I_NODES_LIMIT (1u << 20)

/* ---- paths ---- */

/* The place of a child of a list among its siblings. */
static unsigned packbuf_i_ordinal(const packbuf_i_node *node) {
  unsigned ordinal = 0;
  for (const packbuf_i_node *sibling = node->parent->first_child; sibling && sibling != node; sibling = sibling->next)
    ordinal++;
  return ordinal;
}

/* Writes the path to `to` (NULL: only measures); returns its size. Expansion and the attribute leaves bound the
 * depth. */
static size_t packbuf_i_path_put(const packbuf_i_node *node, char *to) {
  size_t at = node->parent ? packbuf_i_path_put(node->parent, to) : 0;
  if (node->parent && node->parent->kind == PACKBUF_NODE_LIST) {
    if (to) {
      to[at] = '[';
      to[at + 1] = (char)('0' + packbuf_i_ordinal(node));
      to[at + 2] = ']';
    }
    return at + 3;
  }
  if (node->parent) {
    if (to) to[at] = '.';
    at++;
  }
  for (size_t i = 0; i < node->name_size; i++) {
    char c = node->name[i];
    if (c == '\\' || c == '.' || c == '[') {
      if (to) to[at] = '\\';
      at++;
    }
    if (to) to[at] = c;
    at++;
  }
  return at;
}

static char *packbuf_i_node_path(const packbuf_i_node *node, packbuf_arena *arena) {
  size_t size = packbuf_i_path_put(node, NULL);
  char *path = (char *)packbuf_arena_alloc(arena, size + 1, 1);
  if (!path) return NULL;
  packbuf_i_path_put(node, path);
  path[size] = 0;
  return path;
}

/* One more character before what stands at to[at], when there is room. */
static size_t packbuf_i_path_before(char *to, size_t at, char c) {
  if (at) to[--at] = c;
  return at;
}

/* The end of the path of a node, put before to[at], as far as there is room; returns where it begins. */
static size_t packbuf_i_path_tail(const packbuf_i_node *node, char *to, size_t at) {
  for (; node && at; node = node->parent) {
    if (node->parent && node->parent->kind == PACKBUF_NODE_LIST) {
      at = packbuf_i_path_before(to, at, ']');
      at = packbuf_i_path_before(to, at, (char)('0' + packbuf_i_ordinal(node)));
      at = packbuf_i_path_before(to, at, '[');
      continue;
    }
    for (size_t i = node->name_size; i-- > 0 && at;) {
      char c = node->name[i];
      at = packbuf_i_path_before(to, at, c);
      if (c == '\\' || c == '.' || c == '[') at = packbuf_i_path_before(to, at, '\\');
    }
    if (node->parent) at = packbuf_i_path_before(to, at, '.');
  }
  return at;
}

/* Fails with the path of a node, which may be NULL. Takes no memory: many threads may fail at once. */
static packbuf_status packbuf_i_fail_at(packbuf_error *error, const packbuf_i_node *node, packbuf_status code,
                                        const char *message, uint64_t offset, uint64_t row) {
  char path[PACKBUF_ERROR_PATH]; /* one more than is kept, so that what does not fit is seen to be cut */
  packbuf_i_fail(error, code, message, offset, row);
  if (error && node) {
    size_t at = packbuf_i_path_tail(node, path, sizeof path);
    packbuf_i_set_path(error, path + at, sizeof path - at);
  }
  return code;
}

static packbuf_status packbuf_i_node_fail(const packbuf_i_expand *expand, const packbuf_i_node *node,
                                          packbuf_status code, const char *message, uint64_t offset, uint64_t row) {
  return packbuf_i_fail_at(expand->error, node, code, message, offset, row);
}

/* What is left of `path` after the path of the node, or NULL when it does not begin with that. */
static const char *packbuf_i_path_skip(const packbuf_i_node *node, const char *path) {
  if (node->parent && !(path = packbuf_i_path_skip(node->parent, path))) return NULL;
  if (node->parent && node->parent->kind == PACKBUF_NODE_LIST)
    return path[0] == '[' && path[1] == (char)('0' + packbuf_i_ordinal(node)) && path[2] == ']' ? path + 3 : NULL;
  if (node->parent && *path++ != '.') return NULL;
  for (size_t i = 0; i < node->name_size; i++) {
    char c = node->name[i];
    if ((c == '\\' || c == '.' || c == '[') && *path++ != '\\') return NULL;
    if (c == 0 || *path++ != c) return NULL; /* a schema's path is NUL-terminated */
  }
  return path;
}

/* The schema entry of a node (the last, when there are several), or NULL. */
static const packbuf_schema *packbuf_i_schema_of(const packbuf_i_expand *expand, const packbuf_i_node *node) {
  for (size_t i = expand->schema_count; i-- > 0;) {
    const packbuf_schema *schema = &expand->schemas[i];
    const char *rest =
        schema->path && schema->batch_value == node->scope ? packbuf_i_path_skip(node, schema->path) : NULL;
    if (rest && *rest == 0) return schema;
  }
  return NULL;
}

/* ---- columns of children ---- */

/* A column with values in fewer than one of so many rows keeps them alone. */
#define PACKBUF_I_SPARSE_ROWS 4

/* A column that grows while the rows are read. As long as all rows so far have a value, the cells are all there is. */
typedef struct packbuf_i_growing {
  const packbuf_value **cells; /* with a value */
  uint64_t count, room;
  uint64_t end;   /* the row after the last one that has the key or item */
  uint64_t *there; /* bitmap of the rows with a value; NULL: the first `count` */
  uint64_t *nulls; /* of those whose value is null; NULL: none */
} packbuf_i_growing;

typedef struct packbuf_i_columns {
  const packbuf_value *names[PACKBUF_EXPAND_KEYS]; /* the keys */
  packbuf_i_growing of[PACKBUF_EXPAND_KEYS];
  unsigned count;
  uint64_t *absent; /* bitmap of the rows without a dict or list; NULL: none so far */
} packbuf_i_columns;

static int packbuf_i_absent(const packbuf_value *cell) {
  return cell->kind == PACKBUF_NULL || cell->kind == PACKBUF_MISSING;
}

/* The absent cells of a column of which the values alone will be looked at. */
static void packbuf_i_count_sparse(packbuf_i_node *node) {
  const packbuf_i_sparse *sparse = node->cells.sparse;
  if (!sparse) return;
  node->nulls = sparse->null_values;
  node->missing = node->rows - sparse->values - sparse->null_values;
}

static int packbuf_i_count_absent(packbuf_i_node *node, const packbuf_value *cell) {
  node->nulls += cell->kind == PACKBUF_NULL;
  node->missing += cell->kind == PACKBUF_MISSING;
  return packbuf_i_absent(cell);
}

/* Counts the absent cells of a node, and marks them, as far as that takes no look at each. 0 without memory. */
static int packbuf_i_begin_absent(const packbuf_i_expand *expand, packbuf_i_node *node, packbuf_i_columns *columns) {
  const packbuf_i_sparse *sparse = node->cells.sparse;
  if (!sparse) return 1;
  columns->absent = (uint64_t *)packbuf_i_array(expand->arena, sparse->words, sizeof *columns->absent);
  if (!columns->absent) return 0;
  for (uint64_t word = 0; word < sparse->words; word++) columns->absent[word] = ~sparse->there[word];
  if (node->rows & 63) columns->absent[sparse->words - 1] &= ((uint64_t)1 << (node->rows & 63)) - 1;
  packbuf_i_count_sparse(node);
  return 1;
}

/* A key that a dict node can have: string, and not without its bytes. */
static int packbuf_i_plain_key(const packbuf_value *key) {
  return key->kind == PACKBUF_STRING && (key->as.text.data || !key->as.text.size);
}

static uint64_t packbuf_i_row_words(uint64_t rows) { return (rows >> 6) + ((rows & 63) != 0); }

/* Sets a bit of a bitmap of the node's rows, which is made if need be; 0 without memory. */
static int packbuf_i_mark_bit(const packbuf_i_expand *expand, const packbuf_i_node *node, uint64_t **bits,
                              uint64_t row) {
  const uint64_t words = packbuf_i_row_words(node->rows);
  if (!*bits) {
    *bits = (uint64_t *)packbuf_i_array(expand->arena, words, sizeof **bits);
    if (!*bits) return 0;
    memset(*bits, 0, (size_t)words * sizeof **bits);
  }
  (*bits)[row >> 6] |= (uint64_t)1 << (row & 63);
  return 1;
}

/* Makes the bitmap of a column of which the first rows have values; 0 without memory. */
static int packbuf_i_start_gaps(const packbuf_i_expand *expand, const packbuf_i_node *node,
                                packbuf_i_growing *column) {
  const uint64_t words = packbuf_i_row_words(node->rows), whole = column->count >> 6;
  column->there = (uint64_t *)packbuf_i_array(expand->arena, words, sizeof *column->there);
  if (!column->there) return 0;
  memset(column->there, 0xFF, (size_t)whole * sizeof *column->there);
  memset(column->there + whole, 0, (size_t)(words - whole) * sizeof *column->there);
  if (column->count & 63) column->there[whole] = ((uint64_t)1 << (column->count & 63)) - 1;
  return 1;
}

/* The cell of a row, which is behind all that the column has; 0 without memory. */
static int packbuf_i_grow_column(const packbuf_i_expand *expand, const packbuf_i_node *node, packbuf_i_growing *column,
                                 uint64_t row, const packbuf_value *cell) {
  column->end = row + 1;
  if (cell->kind == PACKBUF_MISSING) return 1;
  if (cell->kind == PACKBUF_NULL) return packbuf_i_mark_bit(expand, node, &column->nulls, row);
  if (!column->there && row != column->count && !packbuf_i_start_gaps(expand, node, column)) return 0;
  if (column->there) column->there[row >> 6] |= (uint64_t)1 << (row & 63);
  if (column->count == column->room) {
    const uint64_t room = column->room ? column->room * 4 : 16, most = room < node->rows ? room : node->rows;
    const packbuf_value **cells = (const packbuf_value **)packbuf_i_array(expand->arena, most, sizeof *cells);
    if (!cells) return 0;
    if (column->count) memcpy(cells, column->cells, (size_t)column->count * sizeof *cells);
    column->cells = cells;
    column->room = most;
  }
  column->cells[column->count++] = cell;
  return 1;
}

/* The cells of all rows of a column with gaps; NULL without memory. */
static const packbuf_value **packbuf_i_fill_gaps(const packbuf_i_expand *expand, const packbuf_i_growing *column,
                                                 uint64_t rows) {
  const packbuf_value **cells = (const packbuf_value **)packbuf_i_array(expand->arena, rows, sizeof *cells);
  uint64_t at = 0;
  for (uint64_t row = 0; cells && row < rows; row++) {
    const uint64_t bit = (uint64_t)1 << (row & 63);
    cells[row] = column->there[row >> 6] & bit                    ? column->cells[at++]
                 : column->nulls && column->nulls[row >> 6] & bit ? &packbuf_i_null_cell
                                                                  : &packbuf_i_missing_cell;
  }
  return cells;
}

/* What the cells of a column with few values are found by; NULL without memory. */
static const packbuf_i_sparse *packbuf_i_index_sparse(const packbuf_i_expand *expand, const packbuf_i_growing *column,
                                                      uint64_t rows) {
  packbuf_i_sparse *sparse = (packbuf_i_sparse *)packbuf_i_array(expand->arena, 1, sizeof *sparse);
  const uint64_t words = packbuf_i_row_words(rows);
  uint64_t *before = (uint64_t *)packbuf_i_array(expand->arena, words, sizeof *before);
  if (!sparse || !before) return NULL;
  sparse->there = column->there;
  sparse->nulls = column->nulls;
  sparse->before = before;
  sparse->words = words;
  sparse->values = sparse->null_values = 0;
  for (uint64_t word = 0; word < words; word++) {
    before[word] = sparse->values;
    sparse->values += packbuf_i_count_ones(column->there[word]);
    if (column->nulls) sparse->null_values += packbuf_i_count_ones(column->nulls[word]);
  }
  return sparse;
}

/* The column is whole: gives its cells to a child. Where the node has nothing, the child is null. 0 without memory. */
static int packbuf_i_end_column(const packbuf_i_expand *expand, packbuf_i_growing *column, uint64_t *absent,
                                packbuf_i_node *child) {
  const uint64_t words = packbuf_i_row_words(child->rows);
  child->cells.count = child->rows;
  child->cells.pointers = column->cells;
  if (column->count == child->rows) return 1;
  if (!column->there && !packbuf_i_start_gaps(expand, child, column)) return 0;
  if (!column->nulls) column->nulls = absent;
  else
    for (uint64_t word = 0; absent && word < words; word++) column->nulls[word] |= absent[word];
  if (column->count < child->rows / PACKBUF_I_SPARSE_ROWS) {
    child->cells.sparse = packbuf_i_index_sparse(expand, column, child->rows);
    return child->cells.sparse != NULL;
  }
  child->cells.pointers = packbuf_i_fill_gaps(expand, column, child->rows);
  return child->cells.pointers != NULL;
}

/* Hangs one child below the node for each column. */
static packbuf_status packbuf_i_hang_columns(packbuf_i_expand *expand, packbuf_i_node *node, packbuf_i_columns *columns,
                                             packbuf_node_kind kind) {
  if (columns->count > PACKBUF_I_NODES_LIMIT - expand->nodes)
    return packbuf_i_node_fail(expand, node, PACKBUF_LIMIT, "more than 2^20 nodes", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  node->kind = (uint8_t)kind;
  node->accepted = 1;
  node->reason = kind == PACKBUF_NODE_DICT ? "all cells are dicts with at most 64 keys in all"
                                           : "all cells are lists of at most 8 nulls, dicts and lists";
  expand->nodes += columns->count;
  for (unsigned i = 0; i < columns->count; i++) {
    packbuf_i_node *child = (packbuf_i_node *)packbuf_arena_alloc(expand->arena, sizeof *child, 8);
    if (!child) return packbuf_i_no_memory(expand->error);
    memset(child, 0, sizeof *child);
    child->parent = node;
    child->name = columns->names[i] ? columns->names[i]->as.text.data : "";
    child->name_size = columns->names[i] ? columns->names[i]->as.text.size : 0;
    child->scope = node->scope;
    child->rows = node->rows;
    if (!packbuf_i_end_column(expand, &columns->of[i], columns->absent, child))
      return packbuf_i_no_memory(expand->error);
    if (node->last_child) node->last_child->next = child;
    else node->first_child = child;
    node->last_child = child;
  }
  return PACKBUF_OK;
}

/* ---- dicts ---- */

/* The column of a key: the one at `next` if it fits, else wherever it is; columns->count when it is new. */
static unsigned packbuf_i_find_key(const packbuf_i_columns *columns, const packbuf_value *key, unsigned next) {
  for (unsigned tried = 0; tried < columns->count; tried++, next++) {
    const packbuf_value *name;
    if (next >= columns->count) next = 0;
    name = columns->names[next];
    if (name->as.text.size != key->as.text.size) continue;
    if (name->as.text.data == key->as.text.data ||
        packbuf_i_same_bytes(name->as.text.data, name->as.text.size, key->as.text.data, key->as.text.size))
      return next;
  }
  return columns->count;
}

static packbuf_status packbuf_i_new_key(const packbuf_i_expand *expand, const packbuf_i_node *node,
                                        packbuf_i_columns *columns, const packbuf_value *key, uint64_t row) {
  size_t valid = key->as.text.size ? packbuf_i_utf8_valid((const uint8_t *)key->as.text.data, key->as.text.size) : 0;
  if (valid != key->as.text.size)
    return packbuf_i_node_fail(expand, node, PACKBUF_BAD_UTF8, "a key is not UTF-8 (the offset is into the key)", valid,
                               row);
  memset(&columns->of[columns->count], 0, sizeof columns->of[0]);
  columns->names[columns->count++] = key;
  return PACKBUF_OK;
}

/* Takes the entries of the dict in one row; clears *opens when the column cannot expand. */
static packbuf_status packbuf_i_take_dict(packbuf_i_expand *expand, const packbuf_i_node *node,
                                          packbuf_i_columns *columns, uint64_t row, int *opens) {
  const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
  const packbuf_entry *entries = cell->as.dict.entries;
  unsigned next = 0;
  for (size_t i = 0; i < cell->as.dict.count; i++) {
    packbuf_status status = PACKBUF_OK;
    unsigned at;
    if (!packbuf_i_plain_key(&entries[i].key)) return *opens = 0, PACKBUF_OK;
    at = packbuf_i_find_key(columns, &entries[i].key, next);
    if (at == PACKBUF_EXPAND_KEYS) return *opens = 0, PACKBUF_OK;
    if (at == columns->count) status = packbuf_i_new_key(expand, node, columns, &entries[i].key, row);
    if (status) return status;
    if (columns->of[at].end > row)
      return packbuf_i_node_fail(expand, node, PACKBUF_INVALID_ARGUMENT, "a dict has the same key twice",
                                 PACKBUF_NOWHERE, row);
    if (!packbuf_i_grow_column(expand, node, &columns->of[at], row, &entries[i].value))
      return packbuf_i_no_memory(expand->error);
    next = at + 1;
  }
  return PACKBUF_OK;
}

/* Whether the first rows let the column expand: dicts with string keys, at most 64 of them. Takes no memory. */
static int packbuf_i_probe_dict(const packbuf_i_node *node) {
  uint64_t end = node->rows < PACKBUF_I_PROBE_ROWS ? node->rows : PACKBUF_I_PROBE_ROWS;
  packbuf_i_columns columns;
  columns.count = 0;
  for (uint64_t row = packbuf_i_next_cell(&node->cells, 0); row < end;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    unsigned next = 0;
    if (packbuf_i_absent(cell)) continue;
    if (cell->kind != PACKBUF_DICT || (cell->as.dict.count && !cell->as.dict.entries)) return 0;
    for (size_t i = 0; i < cell->as.dict.count; i++) {
      const packbuf_value *key = &cell->as.dict.entries[i].key;
      if (!packbuf_i_plain_key(key)) return 0;
      next = packbuf_i_find_key(&columns, key, next);
      if (next == PACKBUF_EXPAND_KEYS) return 0;
      if (next == columns.count) columns.names[columns.count++] = key;
      next++;
    }
  }
  return 1;
}

/* Opens a column of dicts, or leaves it a leaf. */
static packbuf_status packbuf_i_open_dict(packbuf_i_expand *expand, packbuf_i_node *node) {
  packbuf_i_columns columns;
  packbuf_status status = PACKBUF_OK;
  int opens = packbuf_i_probe_dict(node);
  columns.count = 0;
  columns.absent = NULL;
  if (opens && !packbuf_i_begin_absent(expand, node, &columns)) return packbuf_i_no_memory(expand->error);
  for (uint64_t row = packbuf_i_next_cell(&node->cells, 0); row < node->rows && opens;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (packbuf_i_count_absent(node, cell)) {
      if (!packbuf_i_mark_bit(expand, node, &columns.absent, row)) return packbuf_i_no_memory(expand->error);
      continue;
    }
    if (cell->kind != PACKBUF_DICT || (cell->as.dict.count && !cell->as.dict.entries)) opens = 0;
    else status = packbuf_i_take_dict(expand, node, &columns, row, &opens);
    if (status) return status;
  }
  if (!opens) return PACKBUF_OK;
  return packbuf_i_hang_columns(expand, node, &columns, PACKBUF_NODE_DICT);
}

/* ---- lists ---- */

/* The longest list's items; 9 when the column does not expand. */
static size_t packbuf_i_measure_lists(const packbuf_i_node *node) {
  size_t most = 0;
  for (uint64_t row = packbuf_i_next_cell(&node->cells, 0); row < node->rows;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    size_t count = cell->as.list.count;
    if (packbuf_i_absent(cell)) continue;
    if (cell->kind != PACKBUF_LIST || count > PACKBUF_EXPAND_ITEMS || (count && !cell->as.list.items))
      return PACKBUF_EXPAND_ITEMS + 1;
    for (size_t i = 0; i < count; i++) {
      unsigned kind = cell->as.list.items[i].kind;
      if (kind != PACKBUF_NULL && kind != PACKBUF_DICT && kind != PACKBUF_LIST) return PACKBUF_EXPAND_ITEMS + 1;
    }
    if (count > most) most = count;
  }
  return most;
}

static packbuf_status packbuf_i_open_list(packbuf_i_expand *expand, packbuf_i_node *node) {
  packbuf_i_columns columns;
  size_t most = packbuf_i_measure_lists(node);
  if (most > PACKBUF_EXPAND_ITEMS) return PACKBUF_OK;
  memset(&columns, 0, sizeof columns);
  columns.count = (unsigned)most;
  if (!packbuf_i_begin_absent(expand, node, &columns)) return packbuf_i_no_memory(expand->error);
  for (uint64_t row = packbuf_i_next_cell(&node->cells, 0); row < node->rows;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    int taken = 1;
    if (packbuf_i_count_absent(node, cell)) taken = packbuf_i_mark_bit(expand, node, &columns.absent, row);
    else
      for (size_t i = 0; taken && i < cell->as.list.count; i++)
        taken = packbuf_i_grow_column(expand, node, &columns.of[i], row, &cell->as.list.items[i]);
    if (!taken) return packbuf_i_no_memory(expand->error);
  }
  return packbuf_i_hang_columns(expand, node, &columns, PACKBUF_NODE_LIST);
}

/* ---- nodes ---- */

/* Forgets an earlier decision and takes what the schema says. */
static packbuf_status packbuf_i_start_node(const packbuf_i_expand *expand, packbuf_i_node *node,
                                           const packbuf_schema *schema) {
  node->first_child = node->last_child = NULL;
  node->kind = PACKBUF_LEAF;
  node->codec = node->form = node->rank = node->accepted = node->typed = node->mixed_ranks = 0;
  memset(&node->dtype, 0, sizeof node->dtype);
  node->reason = "";
  node->nulls = node->missing = 0;
  node->flags = schema ? schema->flags : 0;
  node->packing = schema ? schema->packing : 0;
  node->logical_type = schema ? schema->logical_type : 0;
  node->parameter = schema ? schema->parameter : NULL;
  node->parameter_size = node->parameter ? strlen(node->parameter) : 0;
  if (node->parameter_size &&
      packbuf_i_utf8_valid((const uint8_t *)node->parameter, node->parameter_size) != node->parameter_size)
    return packbuf_i_node_fail(expand, node, PACKBUF_BAD_UTF8, "the schema's parameter is not UTF-8", PACKBUF_NOWHERE,
                               PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* Tries to open a node that the schema leaves free, by the first value it has. */
static packbuf_status packbuf_i_try_open(packbuf_i_expand *expand, packbuf_i_node *node, const packbuf_schema *schema) {
  uint64_t row = 0;
  packbuf_status status = PACKBUF_OK;
  unsigned kind;
  if (schema && (schema->codec != PACKBUF_CODEC_AUTO || schema->dtype.bits))
    return PACKBUF_OK; /* the cells have a codec, or are numbers */
  while ((row = packbuf_i_next_cell(&node->cells, row)) < node->rows &&
         packbuf_i_absent(packbuf_i_cell(&node->cells, row)))
    row++;
  if (row >= node->rows) return PACKBUF_OK;
  kind = packbuf_i_cell(&node->cells, row)->kind;
  if (kind == PACKBUF_DICT) status = packbuf_i_open_dict(expand, node);
  if (kind == PACKBUF_LIST) status = packbuf_i_open_list(expand, node);
  if (node->kind == PACKBUF_LEAF) node->nulls = node->missing = 0; /* counted again by the leaf */
  return status;
}

static packbuf_status packbuf_i_close_node(const packbuf_i_expand *expand, const packbuf_i_node *node) {
  uint64_t row = 0;
  if (!(node->flags & PACKBUF_REFUSE_NULL) || node->nulls + node->missing == 0) return PACKBUF_OK;
  while (!packbuf_i_absent(packbuf_i_cell(&node->cells, row))) row++;
  return packbuf_i_node_fail(expand, node, PACKBUF_NOT_NULLABLE, "the field must not have a null or missing cell",
                             PACKBUF_NOWHERE, row);
}

static packbuf_status packbuf_i_expand_node(packbuf_i_expand *expand, packbuf_i_node *node, unsigned depth) {
  const packbuf_schema *schema = expand->schema_count ? packbuf_i_schema_of(expand, node) : NULL;
  packbuf_status status = packbuf_i_start_node(expand, node, schema);
  if (!status) status = packbuf_i_try_open(expand, node, schema);
  if (status) return status;
  if (depth > PACKBUF_EXPAND_DEPTH)
    return packbuf_i_node_fail(expand, node, PACKBUF_DEPTH, "dicts and lists are nested more than 32 deep",
                               PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (node->kind == PACKBUF_LEAF) {
    status = expand->mode == PACKBUF_COMPAT ? packbuf_i_infer_compat(expand, node)
                                            : packbuf_i_infer_leaf(expand, node, schema);
    return status ? status : packbuf_i_close_node(expand, node);
  }
  if (node->logical_type || node->parameter)
    return packbuf_i_node_fail(expand, node, PACKBUF_UNENCODABLE, "a logical type needs a leaf", PACKBUF_NOWHERE,
                               PACKBUF_NOWHERE);
  status = packbuf_i_close_node(expand, node);
  for (packbuf_i_node *child = node->first_child; child && !status; child = child->next)
    status = packbuf_i_expand_node(expand, child, depth + 1);
  return status;
}
