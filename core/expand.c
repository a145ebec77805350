/* core/expand.c: structure expansion (section 17 of the spec): a column of dicts or short lists becomes a node with a
 * column for each key or item. Keys come in first-seen order; rows mostly have the same keys in the same order, so the
 * key after the last one is tried first.
 * May use: columns, leaf inference, schema entries. Must not know: codecs, layout. */

/* Rows looked at before memory is taken, each of the first and then one of 16: most columns that cannot expand show it
 * there. */
#define PACKBUF_I_PROBE_EACH 64
#define PACKBUF_I_PROBE_ROWS 4096
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

/* The columns that grow while the rows are read. A cell that no row has filled yet is filled when the next one is. */
typedef struct packbuf_i_columns {
  const packbuf_value *names[PACKBUF_EXPAND_KEYS]; /* the keys */
  const packbuf_value **cells[PACKBUF_EXPAND_KEYS];
  uint64_t filled[PACKBUF_EXPAND_KEYS];
  uint64_t before[PACKBUF_EXPAND_KEYS], end[PACKBUF_EXPAND_KEYS]; /* rows outside are absent ... */
  uint64_t missing[PACKBUF_EXPAND_KEYS];                         /* ... so many of them missing, the others null */
  unsigned count;
} packbuf_i_columns;

static const packbuf_value **packbuf_i_new_column(const packbuf_i_expand *expand, uint64_t rows) {
  if (rows > SIZE_MAX / sizeof(packbuf_value *)) return NULL;
  return (const packbuf_value **)packbuf_arena_alloc(expand->arena, (size_t)rows * sizeof(packbuf_value *), 8);
}

static int packbuf_i_absent(const packbuf_value *cell) {
  return cell->kind == PACKBUF_NULL || cell->kind == PACKBUF_MISSING;
}

/* Begins to count absent cells, with those before the node's first row and behind its last. */
static void packbuf_i_count_outer(packbuf_i_node *node) {
  node->nulls = node->outer_nulls;
  node->missing = node->outer_missing;
}

static int packbuf_i_count_absent(packbuf_i_node *node, const packbuf_value *cell) {
  node->nulls += cell->kind == PACKBUF_NULL;
  node->missing += cell->kind == PACKBUF_MISSING;
  return packbuf_i_absent(cell);
}

/* A key that a dict node can have: string, and not without its bytes. */
static int packbuf_i_plain_key(const packbuf_value *key) {
  return key->kind == PACKBUF_STRING && (key->as.text.data || !key->as.text.size);
}

/* Rows without the key up to `end`; returns how many of them are missing. */
static uint64_t packbuf_i_fill_column(packbuf_i_columns *columns, unsigned at, const packbuf_i_node *node,
                                      uint64_t end) {
  const packbuf_value **cells = columns->cells[at];
  uint64_t row = columns->filled[at], missing = 0, known = packbuf_i_end(node);
  for (; row < end && row < node->before; row++) cells[row] = &packbuf_i_null_cell;
  for (; row < end && row < known; row++) {
    int absent = packbuf_i_absent(packbuf_i_cell(&node->cells, row));
    cells[row] = absent ? &packbuf_i_null_cell : &packbuf_i_missing_cell;
    missing += !absent;
  }
  for (; row < end; row++) cells[row] = &packbuf_i_null_cell;
  columns->filled[at] = end;
  return missing;
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
    child->cells.pointers = columns->cells[i];
    child->cells.count = node->rows;
    child->before = columns->before[i];
    child->behind = node->rows - columns->end[i];
    child->outer_missing = columns->missing[i];
    child->outer_nulls = child->before + child->behind - child->outer_missing;
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

static packbuf_status packbuf_i_new_key(packbuf_i_expand *expand, const packbuf_i_node *node,
                                        packbuf_i_columns *columns, const packbuf_value *key, uint64_t row) {
  size_t valid = key->as.text.size ? packbuf_i_utf8_valid((const uint8_t *)key->as.text.data, key->as.text.size) : 0;
  unsigned at = columns->count;
  if (valid != key->as.text.size)
    return packbuf_i_node_fail(expand, node, PACKBUF_BAD_UTF8, "a key is not UTF-8 (the offset is into the key)", valid,
                               row);
  columns->cells[at] = packbuf_i_new_column(expand, node->rows);
  if (!columns->cells[at]) return packbuf_i_no_memory(expand->error);
  columns->filled[at] = 0;
  columns->before[at] = row;
  columns->missing[at] = packbuf_i_fill_column(columns, at, node, row);
  columns->names[at] = key;
  columns->count++;
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
    if (columns->filled[at] > row)
      return packbuf_i_node_fail(expand, node, PACKBUF_INVALID_ARGUMENT, "a dict has the same key twice",
                                 PACKBUF_NOWHERE, row);
    if (columns->filled[at] < row) packbuf_i_fill_column(columns, at, node, row);
    columns->cells[at][row] = &entries[i].value;
    columns->filled[at] = row + 1;
    next = at + 1;
  }
  return PACKBUF_OK;
}

/* Whether the first rows let the column expand: dicts with string keys, at most 64 of them. Takes no memory. */
static int packbuf_i_probe_dict(const packbuf_i_node *node) {
  uint64_t end = packbuf_i_end(node);
  packbuf_i_columns columns;
  columns.count = 0;
  if (end - node->before > PACKBUF_I_PROBE_ROWS) end = node->before + PACKBUF_I_PROBE_ROWS;
  for (uint64_t row = node->before; row < end; row += row - node->before < PACKBUF_I_PROBE_EACH ? 1 : 16) {
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
  packbuf_i_count_outer(node);
  for (uint64_t row = node->before; row < packbuf_i_end(node) && opens; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (packbuf_i_count_absent(node, cell)) continue;
    if (cell->kind != PACKBUF_DICT || (cell->as.dict.count && !cell->as.dict.entries)) opens = 0;
    else status = packbuf_i_take_dict(expand, node, &columns, row, &opens);
    if (status) return status;
  }
  if (!opens) return PACKBUF_OK;
  for (unsigned i = 0; i < columns.count; i++) {
    columns.end[i] = columns.filled[i];
    columns.missing[i] += packbuf_i_fill_column(&columns, i, node, node->rows);
  }
  return packbuf_i_hang_columns(expand, node, &columns, PACKBUF_NODE_DICT);
}

/* ---- lists ---- */

/* The longest list's items; 9 when the column does not expand. */
static size_t packbuf_i_measure_lists(const packbuf_i_node *node) {
  size_t most = 0;
  for (uint64_t row = node->before; row < packbuf_i_end(node); row++) {
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
  uint64_t end = packbuf_i_end(node);
  packbuf_i_columns columns;
  size_t most = packbuf_i_measure_lists(node);
  if (most > PACKBUF_EXPAND_ITEMS) return PACKBUF_OK;
  for (columns.count = 0; columns.count < most; columns.count++) {
    unsigned at = columns.count;
    columns.names[at] = NULL;
    columns.cells[at] = packbuf_i_new_column(expand, node->rows);
    if (!columns.cells[at]) return packbuf_i_no_memory(expand->error);
    columns.before[at] = node->before;
    columns.end[at] = end;
    columns.missing[at] = 0;
    for (uint64_t row = 0; row < node->before; row++) columns.cells[at][row] = &packbuf_i_null_cell;
    for (uint64_t row = end; row < node->rows; row++) columns.cells[at][row] = &packbuf_i_null_cell;
  }
  packbuf_i_count_outer(node);
  for (uint64_t row = node->before; row < end; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    int absent = packbuf_i_count_absent(node, cell);
    for (size_t i = 0; i < most; i++)
      columns.cells[i][row] = absent                    ? &packbuf_i_null_cell
                              : i < cell->as.list.count ? &cell->as.list.items[i]
                                                        : &packbuf_i_missing_cell;
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
  uint64_t row = node->before;
  packbuf_status status = PACKBUF_OK;
  unsigned kind;
  if (schema && (schema->codec != PACKBUF_CODEC_AUTO || schema->dtype.bits))
    return PACKBUF_OK; /* the cells have a codec, or are numbers */
  while (row < packbuf_i_end(node) && packbuf_i_absent(packbuf_i_cell(&node->cells, row))) row++;
  if (row == packbuf_i_end(node)) return PACKBUF_OK;
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
