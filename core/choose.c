/* core/choose.c: from patterns and row lists to a packbuf_selection: which nodes, which rows. A pattern is matched by
 * the set of its steps that a path may have reached, one bit each, so that no pattern is costly.
 * May use: base, arena, access, tables (depth), find (paths). Must not know: buffers, codecs, values. */

/* ---- rows ---- */

enum { PACKBUF_I_ROWS_ALL, PACKBUF_I_ROWS_RANGE, PACKBUF_I_ROWS_INDEX, PACKBUF_I_ROWS_MASK, PACKBUF_I_ROWS_BITMAP };

static packbuf_row_selection packbuf_i_rows_of(int kind, const void *list, uint64_t count) {
  packbuf_row_selection rows;
  rows.kind = (uint8_t)kind;
  rows.first = rows.stop = 0;
  rows.step = 1;
  rows.list = list;
  rows.count = count;
  return rows;
}

PACKBUF_API packbuf_row_selection packbuf_rows_all(void) { return packbuf_i_rows_of(PACKBUF_I_ROWS_ALL, NULL, 0); }

PACKBUF_API packbuf_row_selection packbuf_rows_range(int64_t first, int64_t stop, int64_t step) {
  packbuf_row_selection rows = packbuf_i_rows_of(PACKBUF_I_ROWS_RANGE, NULL, 0);
  rows.first = first;
  rows.stop = stop;
  rows.step = step;
  return rows;
}

PACKBUF_API packbuf_row_selection packbuf_rows_index(const int64_t *indexes, uint64_t count) {
  return packbuf_i_rows_of(PACKBUF_I_ROWS_INDEX, indexes, count);
}

PACKBUF_API packbuf_row_selection packbuf_rows_mask(const uint8_t *bytes, uint64_t rows) {
  return packbuf_i_rows_of(PACKBUF_I_ROWS_MASK, bytes, rows);
}

PACKBUF_API packbuf_row_selection packbuf_rows_bitmap(const uint8_t *bits, uint64_t rows) {
  return packbuf_i_rows_of(PACKBUF_I_ROWS_BITMAP, bits, rows);
}

/* One end of a Python slice over `rows` rows, between `low` and `high`. */
static int64_t packbuf_i_slice_end(int64_t at, int64_t rows, int64_t low, int64_t high) {
  if (at < 0) at += rows;
  return at < low ? low : at > high ? high : at;
}

/* rows is at most 2^62. */
static void packbuf_i_choose_range(const packbuf_row_selection *from, int64_t rows, packbuf_selection *to) {
  const int down = from->step < 0;
  const int64_t low = down ? -1 : 0, high = down ? rows - 1 : rows;
  const int64_t first = packbuf_i_slice_end(from->first, rows, low, high),
                stop = packbuf_i_slice_end(from->stop, rows, low, high);
  const uint64_t step = down ? 0 - (uint64_t)from->step : (uint64_t)from->step;
  const int64_t span = down ? first - stop : stop - first;
  to->rows = span > 0 ? ((uint64_t)span - 1) / step + 1 : 0;
  to->first = to->rows ? (uint64_t)first : 0;
  to->step = to->rows > 1 ? from->step : 1;
}

/* A list of ascending or descending rows that is a range is kept as one. */
static void packbuf_i_choose_list(uint64_t *index, uint64_t count, packbuf_selection *to) {
  int64_t step = 1;
  uint64_t i;
  if (count > 1) step = (int64_t)(index[1] - index[0]);
  for (i = 1; i < count && (int64_t)(index[i] - index[i - 1]) == step; i++) {
  }
  to->rows = count;
  to->first = count ? index[0] : 0;
  to->step = 1;
  if (i < count || (count > 1 && step == 0)) to->index = index;
  else if (count > 1) to->step = step;
}

static int packbuf_i_mask_bit(const packbuf_row_selection *rows, uint64_t i) {
  const uint8_t *mask = (const uint8_t *)rows->list;
  return rows->kind == PACKBUF_I_ROWS_MASK ? mask[i] != 0 : mask[i / 8] >> (i % 8) & 1;
}

static packbuf_status packbuf_i_choose_mask(const packbuf_row_selection *from, packbuf_arena *arena,
                                            packbuf_selection *to, packbuf_error *error) {
  uint64_t count = 0, filled = 0, *index;
  for (uint64_t i = 0; i < from->count; i++) count += (uint64_t)packbuf_i_mask_bit(from, i);
  index = (uint64_t *)packbuf_i_array(arena, count, sizeof *index);
  if (!index) return packbuf_i_no_memory(error);
  for (uint64_t i = 0; i < from->count && filled < count; i++) {
    if (packbuf_i_mask_bit(from, i)) index[filled++] = i;
  }
  packbuf_i_choose_list(index, filled, to);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_choose_index(const packbuf_row_selection *from, uint64_t rows, packbuf_arena *arena,
                                             packbuf_selection *to, packbuf_error *error) {
  uint64_t *index = (uint64_t *)packbuf_i_array(arena, from->count, sizeof *index);
  if (!index) return packbuf_i_no_memory(error);
  for (uint64_t i = 0; i < from->count; i++) {
    int64_t row;
    memcpy(&row, (const uint8_t *)from->list + i * sizeof row, sizeof row);
    index[i] = row < 0 ? rows + (uint64_t)row : (uint64_t)row;
    if (row < 0 ? 0 - (uint64_t)row > rows : index[i] >= rows)
      return packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "the list of rows has an index outside of the batch",
                            PACKBUF_NOWHERE, i);
  }
  packbuf_i_choose_list(index, from->count, to);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_choose_rows(const packbuf_row_selection *from, uint64_t rows, packbuf_arena *arena,
                                            packbuf_selection *to, packbuf_error *error) {
  if (rows >> 62) return packbuf_i_broken(error, PACKBUF_RULE_H10, 48, PACKBUF_NOWHERE);
  if (from->kind > PACKBUF_I_ROWS_BITMAP || (from->kind == PACKBUF_I_ROWS_RANGE && from->step == 0) ||
      (from->kind >= PACKBUF_I_ROWS_INDEX && from->count != 0 && from->list == NULL))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a step of 0, or a list of rows that is NULL",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (from->kind >= PACKBUF_I_ROWS_MASK && from->count != rows)
    return packbuf_i_fail(error, PACKBUF_ROW_COUNT, "the mask has another number of rows than the batch",
                          PACKBUF_NOWHERE, from->count);
  to->step = 1;
  to->rows = rows;
  if (from->kind == PACKBUF_I_ROWS_RANGE) packbuf_i_choose_range(from, (int64_t)rows, to);
  if (from->kind == PACKBUF_I_ROWS_INDEX) return packbuf_i_choose_index(from, rows, arena, to, error);
  if (from->kind >= PACKBUF_I_ROWS_MASK) return packbuf_i_choose_mask(from, arena, to, error);
  return PACKBUF_OK;
}

/* ---- patterns ---- */

#define PACKBUF_I_PATTERN_STEPS 62 /* a bit each, and one for the end; with a star */

/* One step of a pattern: `**`, an item, or a name with stars (size bytes, still escaped). */
typedef struct packbuf_i_pattern_step {
  const char *name;
  size_t size;
  uint64_t item;
  uint8_t any, is_item, any_item;
} packbuf_i_pattern_step;

typedef struct packbuf_i_pattern {
  packbuf_i_pattern_step steps[PACKBUF_I_PATTERN_STEPS];
  unsigned count;
  int exact; /* no star */
} packbuf_i_pattern;

/* A step within brackets, which begins behind the first. */
static int packbuf_i_pattern_item(const char **at, packbuf_i_pattern *pattern, packbuf_i_pattern_step *step) {
  step->is_item = 1;
  if (**at != '*') return packbuf_i_next_item(at, &step->item);
  step->any_item = 1;
  pattern->exact = 0;
  if ((*at)[1] != ']') return 0;
  *at += 2;
  return 1;
}

/* A name that begins at *at. */
static int packbuf_i_pattern_name(const char **at, packbuf_i_pattern *pattern, packbuf_i_pattern_step *step) {
  const char *p = *at;
  step->name = p;
  for (; *p != 0 && *p != '.' && *p != '['; p++) {
    if (*p == '*') pattern->exact = 0;
    if (*p != '\\') continue;
    p++;
    if (*p != '\\' && *p != '.' && *p != '[' && *p != '*') return 0;
    if (*p == '*') pattern->exact = 0; /* `\*` is no escape of paths */
  }
  step->size = (size_t)(p - step->name);
  step->any = step->size == 2 && step->name[0] == '*' && step->name[1] == '*';
  *at = p;
  return 1;
}

static int packbuf_i_parse_pattern(const char *text, packbuf_i_pattern *pattern) {
  pattern->exact = 1;
  for (pattern->count = 0; pattern->count == 0 || *text != 0; pattern->count++) {
    packbuf_i_pattern_step *step =
        &pattern->steps[pattern->count < PACKBUF_I_PATTERN_STEPS ? pattern->count : PACKBUF_I_PATTERN_STEPS - 1];
    memset(step, 0, sizeof *step);
    if (pattern->count != 0 && *text == '[') {
      text++;
      if (!packbuf_i_pattern_item(&text, pattern, step)) return 0;
      continue;
    }
    if (pattern->count != 0 && *text++ != '.') return 0;
    if (!packbuf_i_pattern_name(&text, pattern, step)) return 0;
  }
  return pattern->exact || pattern->count <= PACKBUF_I_PATTERN_STEPS; /* an exact path is looked up, not matched */
}

/* Whether a name matches a step: a star first takes nothing, and then one more character each time the rest does not
 * match; only the last star has to be taken up again. */
static int packbuf_i_name_matches(packbuf_text name, const packbuf_i_pattern_step *step) {
  size_t n = 0, s = 0, star_s = SIZE_MAX, star_n = 0;
  while (n < name.size) {
    const int star = s < step->size && step->name[s] == '*';
    const size_t literal = s < step->size && step->name[s] == '\\' ? s + 1 : s;
    char c = name.data[n];
    PACKBUF_I_FETCHED(c);
    if (star) {
      star_s = ++s;
      star_n = n;
    } else if (s < step->size && c == step->name[literal]) {
      s = literal + 1;
      n++;
    } else if (star_s != SIZE_MAX) {
      s = star_s;
      n = ++star_n;
    } else {
      return 0;
    }
  }
  while (s < step->size && step->name[s] == '*') s++;
  return s == step->size;
}

/* The steps that `**` lets a path be at too. */
static uint64_t packbuf_i_pattern_close(const packbuf_i_pattern *pattern, uint64_t states) {
  for (unsigned i = 0; i < pattern->count; i++) {
    if ((states >> i & 1) && pattern->steps[i].any) states |= UINT64_C(2) << i;
  }
  return states;
}

/* The steps reached below a node that was reached with `states`, by a child with this name, or this item. Bit i: the
 * first i steps are done. */
static uint64_t packbuf_i_pattern_advance(const packbuf_i_pattern *pattern, uint64_t states, int is_item,
                                          packbuf_text name, uint64_t item) {
  uint64_t next = 0;
  for (unsigned i = 0; i < pattern->count; i++) {
    const packbuf_i_pattern_step *step = &pattern->steps[i];
    if ((states >> i & 1) == 0) continue;
    if (step->any) next |= UINT64_C(1) << i;
    else if (step->is_item != is_item) continue;
    else if (is_item ? step->any_item || step->item == item : packbuf_i_name_matches(name, step))
      next |= UINT64_C(2) << i;
  }
  return packbuf_i_pattern_close(pattern, next);
}

/* ---- nodes ---- */

/* A node on the way down while the table is passed over. */
typedef struct packbuf_i_choose_level {
  uint64_t end;    /* of its subtree */
  uint64_t states; /* of the pattern */
  uint64_t items;  /* children so far */
  int is_list;
} packbuf_i_choose_level;

typedef struct packbuf_i_chooser {
  const packbuf_view *view;
  uint32_t begin, end; /* the nodes of the scope */
  uint8_t *flags;
  packbuf_error *error;
} packbuf_i_chooser;

static void packbuf_i_choose_subtree(packbuf_i_chooser *c, uint64_t from, uint64_t end, uint8_t flag) {
  memset(c->flags + from, flag, (size_t)(end - from));
}

/* The record at `index` and its name; N2 unless it stays within `end` and its parent is `parent`. */
static packbuf_status packbuf_i_choose_node(const packbuf_i_chooser *c, uint32_t index, uint64_t end, uint32_t parent,
                                            packbuf_node *node) {
  const packbuf_status status = packbuf_get_node(c->view, index, node, c->error);
  if (status != PACKBUF_OK) return status;
  if (node->parent == parent && node->descendants < end - index) return PACKBUF_OK;
  return packbuf_i_broken_node(c->error, c->view, PACKBUF_RULE_N2,
                               packbuf_i_node_at(c->view, index) + (node->parent != parent ? 0 : 4), index,
                               PACKBUF_NOWHERE);
}

/* Passes over all nodes of the scope with one pattern; *matched: whether any node matched. */
static packbuf_status packbuf_i_choose_by_pattern(packbuf_i_chooser *c, const packbuf_i_pattern *pattern, uint8_t flag,
                                                  int *matched) {
  packbuf_i_choose_level path[PACKBUF_I_DEPTH_CAP + 1];
  uint32_t parents[PACKBUF_I_DEPTH_CAP + 1];
  unsigned depth = 0;
  path[0].end = c->end;
  path[0].states = packbuf_i_pattern_close(pattern, 1);
  path[0].items = 0;
  path[0].is_list = 0;
  parents[0] = PACKBUF_NO_NODE;
  for (uint64_t at = c->begin; at < c->end;) {
    packbuf_i_choose_level *up;
    packbuf_node node;
    packbuf_status status;
    uint64_t states;
    while (path[depth].end <= at) depth--; /* the outermost ends with the scope */
    up = &path[depth];
    status = packbuf_i_choose_node(c, (uint32_t)at, up->end, parents[depth], &node);
    if (status != PACKBUF_OK) return status;
    states = packbuf_i_pattern_advance(pattern, up->states, up->is_list, node.name, up->items++);
    if (states >> pattern->count & 1) {
      *matched = 1;
      packbuf_i_choose_subtree(c, at, at + 1 + node.descendants, flag);
    }
    if ((states >> pattern->count & 1) || states == 0 || node.descendants == 0) {
      at += 1 + (uint64_t)node.descendants;
      continue;
    }
    if (depth == PACKBUF_I_DEPTH_CAP)
      return packbuf_i_broken_node(c->error, c->view, PACKBUF_RULE_N3, packbuf_i_node_at(c->view, (uint32_t)at),
                                   (uint32_t)at, PACKBUF_NOWHERE);
    depth++;
    path[depth].end = at + 1 + node.descendants;
    path[depth].states = states;
    path[depth].items = 0;
    path[depth].is_list = node.kind == PACKBUF_NODE_LIST;
    parents[depth] = (uint32_t)at;
    at++;
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_pattern_failed(const packbuf_i_chooser *c, packbuf_status code, const char *message,
                                               const char *pattern) {
  packbuf_i_fail(c->error, code, message, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (c->error) {
    size_t size = 0;
    while (size + 1 < sizeof c->error->path && pattern[size] != 0) size++;
    memcpy(c->error->path, pattern, size);
    c->error->path[size] = 0;
  }
  return code;
}

static packbuf_status packbuf_i_choose_pattern(packbuf_i_chooser *c, unsigned scope, const char *text) {
  const uint8_t flag = text[0] == '!' ? 0 : PACKBUF_I_CHOSEN;
  const char *path = text + (text[0] == '!' || (text[0] == '\\' && text[1] == '!'));
  packbuf_i_pattern pattern;
  packbuf_status status = PACKBUF_OK;
  int matched = 0;
  if (!packbuf_i_parse_pattern(path, &pattern))
    return packbuf_i_pattern_failed(c, PACKBUF_INVALID_ARGUMENT, "not a pattern", text);
  if (pattern.exact) {
    packbuf_node node;
    matched = packbuf_find(c->view, scope, path, &node, NULL) == PACKBUF_OK;
    if (matched && (node.index < c->begin || node.descendants >= (uint64_t)c->end - node.index))
      return packbuf_i_broken_node(c->error, c->view, PACKBUF_RULE_N2, packbuf_i_node_at(c->view, node.index) + 4,
                                   node.index, PACKBUF_NOWHERE);
    if (matched) packbuf_i_choose_subtree(c, node.index, (uint64_t)node.index + 1 + node.descendants, flag);
  } else {
    status = packbuf_i_choose_by_pattern(c, &pattern, flag, &matched);
  }
  if (status == PACKBUF_OK && !matched)
    return packbuf_i_pattern_failed(c, PACKBUF_NOT_FOUND, "no column has this path or matches this pattern", text);
  return status;
}

/* Marks what is above the chosen nodes and lists all of them. Attributes follow their media leaf: a child comes after
 * its parent, whose flag then stands. */
static packbuf_status packbuf_i_choose_nodes(packbuf_i_chooser *c, packbuf_arena *arena, packbuf_selection *to) {
  uint32_t *nodes, count = 0;
  packbuf_i_node_record up, node;
  for (uint32_t i = c->begin; i < c->end; i++) {
    if (!packbuf_i_fetch_node(c->view, i, &node) || node.parent >= i || node.parent < c->begin ||
        c->flags[node.parent] != PACKBUF_I_CHOSEN || !packbuf_i_fetch_node(c->view, node.parent, &up) ||
        up.kind != PACKBUF_LEAF)
      continue;
    c->flags[i] = PACKBUF_I_CHOSEN;
  }
  for (uint32_t i = c->end; i-- > c->begin;) {
    if (c->flags[i] == 0) continue;
    count++;
    if (packbuf_i_fetch_node(c->view, i, &node) && node.parent < i && node.parent >= c->begin &&
        c->flags[node.parent] == 0)
      c->flags[node.parent] = PACKBUF_I_ABOVE;
  }
  nodes = (uint32_t *)packbuf_i_array(arena, count, sizeof *nodes);
  if (!nodes) return packbuf_i_no_memory(c->error);
  to->node_count = 0;
  for (uint32_t i = c->begin; i < c->end; i++) {
    if (c->flags[i] != 0) nodes[to->node_count++] = i;
  }
  to->nodes = nodes;
  to->flags = c->flags;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_select(const packbuf_view *view, unsigned scope, const char *const *patterns,
                                          size_t pattern_count, packbuf_row_selection rows, packbuf_arena *arena,
                                          packbuf_selection *selection, packbuf_error *error) {
  packbuf_i_chooser c;
  packbuf_status status;
  memset(selection, 0, sizeof *selection);
  if (scope > 1 || (patterns == NULL && pattern_count != 0))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "scope is neither 0 nor 1, or patterns is NULL",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  c.view = view;
  c.begin = scope ? (uint32_t)packbuf_i_fields_end(view) : 0;
  c.end = scope ? view->node_count : (uint32_t)packbuf_i_fields_end(view);
  c.error = error;
  c.flags = (uint8_t *)packbuf_arena_alloc(arena, view->node_count, 8);
  if (!c.flags) return packbuf_i_no_memory(error);
  memset(c.flags, 0, view->node_count);
  if (pattern_count == 0 || patterns[0][0] == '!') packbuf_i_choose_subtree(&c, c.begin, c.end, PACKBUF_I_CHOSEN);
  for (size_t i = 0; i < pattern_count; i++) {
    status = packbuf_i_choose_pattern(&c, scope, patterns[i]);
    if (status != PACKBUF_OK) return status;
  }
  selection->view = view;
  selection->scope = (uint8_t)scope;
  status = packbuf_i_choose_rows(&rows, scope ? 1 : view->rows, arena, selection, error);
  return status == PACKBUF_OK ? packbuf_i_choose_nodes(&c, arena, selection) : status;
}
