/* core/join.c: many packed buffers read as one batch: the checks that they fit together (section 23), and values across
 * them. Nothing is copied: a field of the whole is a list of parts.
 * May use: base, arena, sort, access, tables (check), find, read, schema, manifest.
 * Must not know: how a batch is built. */

/* A top-level node of a fragment, to be grouped by its name. */
typedef struct packbuf_i_join_entry {
  packbuf_text name;
  packbuf_join_part part;
} packbuf_i_join_entry;

/* What joining works with. */
typedef struct packbuf_i_joiner {
  packbuf_join *join;
  const packbuf_fragment *list; /* one for each view */
  packbuf_arena *arena;
  packbuf_error *error;
  packbuf_i_join_entry *entries;
  uint64_t count;
} packbuf_i_joiner;

static packbuf_status packbuf_i_join_fail(packbuf_error *error, packbuf_status code, const char *message,
                                          packbuf_text name, uint64_t fragment, uint64_t row) {
  packbuf_i_fail(error, code, message, PACKBUF_NOWHERE, row);
  if (!error) return code;
  error->fragment = fragment;
  packbuf_i_set_path(error, name.data, name.size);
  return code;
}

/* Notes which fragment a failed call was about. */
static packbuf_status packbuf_i_of_fragment(packbuf_error *error, packbuf_status status, uint64_t fragment) {
  if (status != PACKBUF_OK && error) error->fragment = fragment;
  return status;
}

/* ---- fragments against the list ---- */

static const char *packbuf_i_unlike_listed(const packbuf_view *view, const packbuf_fragment *f) {
  if (view->total_length != f->length) return "the fragment has another length than is listed";
  if (view->head_length + view->index_length != f->head_length)
    return "the fragment's head and index have another length than is listed";
  if (view->rows != f->rows) return "the fragment has another number of rows than is listed";
  if (view->head_checksum != f->head_checksum) return "the fragment's head has another checksum than is listed";
  return NULL;
}

/* Checks each fragment by itself, and makes the list when none was given. */
static packbuf_status packbuf_i_join_list(packbuf_i_joiner *j, const packbuf_fragment *list) {
  packbuf_join *join = j->join;
  packbuf_fragment *made = NULL;
  if (!list) {
    made = (packbuf_fragment *)packbuf_i_array(j->arena, join->view_count, sizeof *made);
    if (!made) return packbuf_i_no_memory(j->error);
  }
  j->list = list ? list : made;
  for (uint32_t i = 0; i < join->view_count; i++) {
    const packbuf_view *view = &join->views[i];
    const char *fault;
    packbuf_status status = packbuf_i_check_tables(view, j->error);
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(j->error, status, i);
    if (view->kind != 1)
      return packbuf_i_fail_fragment(j->error, PACKBUF_FRAGMENT_MISMATCH, "a fragment is itself a manifest", i);
    if (made) (void)packbuf_fragment_of(view, "", PACKBUF_APPENDS_ROWS, join->rows, &made[i], NULL);
    fault = list ? packbuf_i_unlike_listed(view, &list[i]) : NULL;
    if (fault) return packbuf_i_fail_fragment(j->error, PACKBUF_FRAGMENT_MISMATCH, fault, i);
    fault = packbuf_i_fragment_fault(&j->list[i], &join->rows);
    if (fault) return packbuf_i_fail_fragment(j->error, PACKBUF_BAD_MANIFEST, fault, i);
  }
  return PACKBUF_OK;
}

/* Fields belong to rows by the token. until[i]: the end of the rows that carry fragment i's token, from it on. */
static packbuf_status packbuf_i_join_tokens(packbuf_i_joiner *j) {
  static const uint8_t zero[16] = {0};
  const packbuf_join *join = j->join;
  uint32_t *owners = (uint32_t *)packbuf_i_array(j->arena, join->view_count, sizeof *owners);
  uint64_t *until = (uint64_t *)packbuf_i_array(j->arena, join->view_count, sizeof *until);
  uint32_t count = 0;
  if (!owners || !until) return packbuf_i_no_memory(j->error);
  for (uint32_t i = 0; i < join->view_count; i++)
    if (j->list[i].appends == PACKBUF_APPENDS_ROWS && j->list[i].rows) owners[count++] = i;
  for (uint32_t k = count; k-- > 0;) {
    const packbuf_view *view = &join->views[owners[k]];
    until[k] = j->list[owners[k]].first_row + view->rows;
    if (k + 1 < count &&
        memcmp(view->row_order_token, join->views[owners[k + 1]].row_order_token, sizeof view->row_order_token) == 0)
      until[k] = until[k + 1];
  }
  for (uint32_t i = 0; i < join->view_count; i++) {
    const packbuf_fragment *f = &j->list[i];
    const uint8_t *token = join->views[i].row_order_token;
    uint32_t low = 0, high = count;
    if (f->appends != PACKBUF_APPENDS_FIELDS || !f->rows) continue;
    if (memcmp(token, zero, sizeof zero) == 0)
      return packbuf_i_fail_fragment(j->error, PACKBUF_ROW_ORDER,
                                     "fields need a row_order_token: give both them and their rows the same 16 bytes",
                                     i);
    while (low + 1 < high) { /* the last owner that starts at or before the first row */
      const uint32_t middle = low + (high - low) / 2;
      if (j->list[owners[middle]].first_row <= f->first_row) low = middle;
      else high = middle;
    }
    if (!count || memcmp(join->views[owners[low]].row_order_token, token, sizeof zero) != 0 ||
        until[low] < f->first_row + f->rows)
      return packbuf_i_fail_fragment(j->error, PACKBUF_ROW_ORDER,
                                     "fields have another row_order_token than their rows: give both the same 16 bytes",
                                     i);
  }
  return PACKBUF_OK;
}

/* ---- fields, by name ---- */

/* By name, then by row, then by fragment. */
static int packbuf_i_join_order(const void *context, const void *a, const void *b) {
  const packbuf_i_join_entry *x = (const packbuf_i_join_entry *)a, *y = (const packbuf_i_join_entry *)b;
  const int names = packbuf_i_compare_text(x->name.data, x->name.size, y->name.data, y->name.size);
  (void)context;
  if (names) return names;
  if (x->part.first_row != y->part.first_row) return x->part.first_row < y->part.first_row ? -1 : 1;
  return x->part.fragment < y->part.fragment ? -1 : x->part.fragment > y->part.fragment;
}

/* The top-level nodes of a scope in all fragments, sorted. Batch values have one row, which all fragments share. */
static packbuf_status packbuf_i_join_entries(packbuf_i_joiner *j, unsigned scope) {
  const packbuf_join *join = j->join;
  packbuf_i_join_entry *list;
  uint64_t count = 0;
  j->count = 0;
  for (uint32_t i = 0; i < join->view_count; i++)
    count += scope ? join->views[i].value_count : join->views[i].field_count;
  if (count > UINT32_MAX / 2)
    return packbuf_i_fail(j->error, PACKBUF_LIMIT, "more than 2^31 fields in all", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  list = (packbuf_i_join_entry *)packbuf_i_array(j->arena, count, 2 * sizeof *list);
  if (!list) return packbuf_i_no_memory(j->error);
  for (uint32_t i = 0; i < join->view_count; i++) {
    const packbuf_view *view = &join->views[i];
    uint64_t node = scope ? packbuf_i_fields_end(view) : 0;
    for (uint32_t f = scope ? view->value_count : view->field_count; f; f--) {
      packbuf_i_node_record record;
      packbuf_i_join_entry *entry = &list[j->count];
      if (node > UINT32_MAX || !packbuf_i_fetch_node(view, (uint32_t)node, &record) ||
          !packbuf_i_string(view, record.name_offset, record.name_length, &entry->name))
        return packbuf_i_fail_fragment(j->error, PACKBUF_HEAD_CHECKSUM, "the head has changed since it was opened", i);
      entry->part.fragment = i;
      entry->part.node = (uint32_t)node;
      entry->part.first_row = scope ? 0 : j->list[i].first_row;
      entry->part.rows = scope ? 1 : j->list[i].rows;
      j->count++;
      node += 1 + (uint64_t)record.descendants;
    }
  }
  j->entries =
      (packbuf_i_join_entry *)packbuf_i_sort(list, list + count, count, sizeof *list, packbuf_i_join_order, NULL);
  return PACKBUF_OK;
}

/* Which member of the schema text differs between two nodes; PACKBUF_I_SCHEMA_MEMBERS: none. */
static packbuf_i_schema_member packbuf_i_type_differs(const packbuf_node *a, const packbuf_node *b) {
  if (a->kind != b->kind || a->codec != b->codec) return PACKBUF_I_SCHEMA_CODEC;
  if (!packbuf_i_dtype_equal(a->dtype, b->dtype)) return PACKBUF_I_SCHEMA_DTYPE;
  if (a->form != b->form) return PACKBUF_I_SCHEMA_FORM;
  if (a->rank != b->rank || (a->rank && memcmp(a->shape, b->shape, sizeof a->shape) != 0))
    return PACKBUF_I_SCHEMA_SHAPE;
  if (a->logical_type != b->logical_type) return PACKBUF_I_SCHEMA_LOGICAL;
  return packbuf_i_same_bytes(a->parameter.data, a->parameter.size, b->parameter.data, b->parameter.size)
             ? PACKBUF_I_SCHEMA_MEMBERS
             : PACKBUF_I_SCHEMA_PARAMETER;
}

/* Whether the columns at two nodes, with all below them, have one type; else SCHEMA_MISMATCH with path and fragment (of
 * `b`). */
static packbuf_status packbuf_i_same_type(const packbuf_join *join, const packbuf_join_part *a,
                                          const packbuf_join_part *b, packbuf_error *error) {
  const packbuf_view *first = &join->views[a->fragment], *second = &join->views[b->fragment];
  packbuf_i_schema_walk x, y;
  uint32_t i = a->node, k = b->node;
  int more = 1, also = 1, top = 1;
  packbuf_i_schema_below(&x, first, i);
  packbuf_i_schema_below(&y, second, k);
  while (more && also) {
    packbuf_node p, q;
    packbuf_i_schema_member differs;
    packbuf_status status = packbuf_get_node(first, i, &p, error);
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(error, status, a->fragment);
    status = packbuf_get_node(second, k, &q, error);
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(error, status, b->fragment);
    if (!top && (x.steps != y.steps || !packbuf_i_same_bytes(p.name.data, p.name.size, q.name.data, q.name.size)))
      break;
    differs = packbuf_i_type_differs(&p, &q);
    if (differs != PACKBUF_I_SCHEMA_MEMBERS) {
      packbuf_i_mismatch(error, packbuf_i_schema_differs[differs]);
      if (!error) return PACKBUF_SCHEMA_MISMATCH;
      packbuf_node_path(second, k, error->path, sizeof error->path);
      packbuf_i_node_words(&p, error->expected);
      packbuf_i_node_words(&q, error->found);
      return packbuf_i_of_fragment(error, PACKBUF_SCHEMA_MISMATCH, b->fragment);
    }
    top = 0;
    more = packbuf_i_schema_next(&x, &i);
    also = packbuf_i_schema_next(&y, &k);
  }
  if (!more && !also) return PACKBUF_OK;
  packbuf_i_mismatch(error, "the column has other keys or items than in the fragment before");
  if (error) {
    if (also) packbuf_node_path(second, k, error->path, sizeof error->path);
    else packbuf_node_path(first, i, error->path, sizeof error->path);
  }
  return packbuf_i_of_fragment(error, PACKBUF_SCHEMA_MISMATCH, b->fragment);
}

/* The fragment that brought a row. */
static uint64_t packbuf_i_row_owner(const packbuf_i_joiner *j, uint64_t row) {
  for (uint32_t i = 0; i < j->join->view_count; i++)
    if (j->list[i].appends == PACKBUF_APPENDS_ROWS && row - j->list[i].first_row < j->list[i].rows) return i;
  return PACKBUF_NOWHERE;
}

/* Some rows, from `row` on, have no cell of a field; `there`: a part that has some, or NULL. */
static packbuf_status packbuf_i_join_lacks(packbuf_i_joiner *j, const packbuf_join_field *field,
                                           const packbuf_join_part *there, uint64_t row) {
  packbuf_node node;
  packbuf_i_join_fail(j->error, PACKBUF_SCHEMA_MISMATCH, "a fragment lacks a field that others have", field->name,
                      packbuf_i_row_owner(j, row), row);
  if (j->error && there && packbuf_get_node(&j->join->views[there->fragment], there->node, &node, NULL) == PACKBUF_OK)
    packbuf_i_node_words(&node, j->error->expected);
  return PACKBUF_SCHEMA_MISMATCH;
}

/* The parts of one field: none for the same rows twice, all rows, one type. Parts without rows take part in nothing. */
static packbuf_status packbuf_i_join_field_check(packbuf_i_joiner *j, packbuf_join_field *field) {
  const int widen = (j->join->flags & PACKBUF_WIDEN) != 0;
  const packbuf_join_part *first = NULL;
  uint64_t rows = 0, gap = PACKBUF_NOWHERE;
  field->same = 1;
  for (uint32_t i = 0; i < field->part_count; i++) {
    const packbuf_join_part *part = &field->parts[i];
    packbuf_status status;
    if (!part->rows) continue;
    if (part->first_row < rows)
      return packbuf_i_join_fail(j->error, PACKBUF_DUPLICATE_NAME, "two fragments have this field for the same rows",
                                 field->name, part->fragment, part->first_row);
    if (part->first_row > rows && gap == PACKBUF_NOWHERE) gap = rows;
    rows = part->first_row + part->rows;
    if (!first) first = part;
    status = part == first || !field->same ? PACKBUF_OK : packbuf_i_same_type(j->join, first, part, j->error);
    if (status == PACKBUF_SCHEMA_MISMATCH && widen) field->same = 0;
    else if (status != PACKBUF_OK) return status;
  }
  if (rows < j->join->rows && gap == PACKBUF_NOWHERE) gap = rows;
  if (gap == PACKBUF_NOWHERE) return PACKBUF_OK;
  field->same = 0;
  return widen ? PACKBUF_OK : packbuf_i_join_lacks(j, field, first, gap);
}

/* A field's place in the order of first sight: fragment, then node. */
typedef struct packbuf_i_join_seen {
  uint64_t at;
  uint32_t field;
} packbuf_i_join_seen;

static int packbuf_i_join_seen_order(const void *context, const void *a, const void *b) {
  const uint64_t x = ((const packbuf_i_join_seen *)a)->at, y = ((const packbuf_i_join_seen *)b)->at;
  (void)context;
  return x < y ? -1 : x > y;
}

/* Whether sorted entry i has another name than the one before it. */
static int packbuf_i_join_begins(const packbuf_i_joiner *j, uint64_t i) {
  const packbuf_i_join_entry *e = &j->entries[i];
  return i == 0 || !packbuf_i_same_bytes(e->name.data, e->name.size, e[-1].name.data, e[-1].name.size);
}

/* Groups the sorted entries: fields in first-seen order, and their indexes by name. */
static packbuf_status packbuf_i_join_group(packbuf_i_joiner *j, const packbuf_join_field **out, uint32_t **by_name,
                                           uint32_t *out_count) {
  packbuf_join_part *parts = (packbuf_join_part *)packbuf_i_array(j->arena, j->count, sizeof *parts);
  const packbuf_i_join_seen *order;
  packbuf_i_join_seen *seen;
  packbuf_join_field *fields, *sorted;
  uint32_t count = 0;
  for (uint64_t i = 0; i < j->count; i++) count += (uint32_t)packbuf_i_join_begins(j, i);
  fields = (packbuf_join_field *)packbuf_i_array(j->arena, count, 2 * sizeof *fields);
  seen = (packbuf_i_join_seen *)packbuf_i_array(j->arena, count, 2 * sizeof *seen);
  *by_name = (uint32_t *)packbuf_i_array(j->arena, count, sizeof **by_name);
  if (!parts || !fields || !seen || !*by_name) return packbuf_i_no_memory(j->error);
  sorted = fields + count;
  count = 0;
  for (uint64_t i = 0; i < j->count; i++) {
    const packbuf_join_part *part = &j->entries[i].part;
    const uint64_t at = (uint64_t)part->fragment << 32 | part->node;
    parts[i] = *part;
    if (packbuf_i_join_begins(j, i)) {
      memset(&sorted[count], 0, sizeof *sorted);
      sorted[count].name = j->entries[i].name;
      sorted[count].parts = &parts[i];
      seen[count].at = at;
      seen[count].field = count;
      count++;
    }
    sorted[count - 1].part_count++;
    if (at < seen[count - 1].at) seen[count - 1].at = at;
  }
  order =
      (packbuf_i_join_seen *)packbuf_i_sort(seen, seen + count, count, sizeof *seen, packbuf_i_join_seen_order, NULL);
  for (uint32_t i = 0; i < count; i++) {
    fields[i] = sorted[order[i].field];
    (*by_name)[order[i].field] = i;
  }
  *out = fields;
  *out_count = count;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_join_fields(packbuf_i_joiner *j) {
  packbuf_join *join = j->join;
  uint32_t *by_name;
  packbuf_status status = packbuf_i_join_entries(j, 0);
  if (status == PACKBUF_OK) status = packbuf_i_join_group(j, &join->fields, &by_name, &join->field_count);
  for (uint32_t i = 0; status == PACKBUF_OK && i < join->field_count; i++)
    status = packbuf_i_join_field_check(j, (packbuf_join_field *)&join->fields[i]);
  if (status != PACKBUF_OK) return status;
  join->by_name = by_name;
  status = packbuf_i_join_entries(j, 1);
  return status != PACKBUF_OK ? status : packbuf_i_join_group(j, &join->values, &by_name, &join->value_count);
}

PACKBUF_API packbuf_status packbuf_join_init(packbuf_join *join, const packbuf_fragment *list,
                                             const packbuf_view *views, uint64_t count, unsigned flags,
                                             packbuf_arena *arena, packbuf_error *error) {
  packbuf_i_joiner j;
  packbuf_status status;
  if (!join || !arena || (count && !views) || count > UINT32_MAX / 2 ||
      (flags & ~(unsigned)(PACKBUF_WIDEN | PACKBUF_FIRST_VALUE)) != 0)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT,
                          "a join, views and an arena must be given, and no flag that is unknown", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  memset(join, 0, sizeof *join);
  join->views = views;
  join->view_count = (uint32_t)count;
  join->flags = flags;
  memset(&j, 0, sizeof j);
  j.join = join;
  j.arena = arena;
  j.error = error;
  status = packbuf_i_join_list(&j, list);
  if (status == PACKBUF_OK) status = packbuf_i_join_tokens(&j);
  if (status == PACKBUF_OK) status = packbuf_i_join_fields(&j);
  if (status != PACKBUF_OK) memset(join, 0, sizeof *join);
  return status;
}

/* ---- reading ---- */

/* The field that a path begins with; *nested: whether the path goes on below it. */
static packbuf_status packbuf_i_join_find(const packbuf_join *join, const char *path, const packbuf_join_field **field,
                                          int *nested, packbuf_error *error) {
  packbuf_i_step step;
  uint32_t low = 0, high = join->field_count;
  const char *rest = path;
  if (!path || !packbuf_i_next_step(&rest, 1, &step))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "not a path", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  *nested = *rest != 0;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const packbuf_join_field *f = &join->fields[join->by_name[middle]];
    const int order = packbuf_i_compare_escaped(f->name, &step);
    *field = f;
    if (order == 0) return PACKBUF_OK;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return packbuf_i_fail(error, PACKBUF_NOT_FOUND, "no fragment has a field of this name", PACKBUF_NOWHERE,
                        PACKBUF_NOWHERE);
}

/* A part of the field as the part of the whole path. */
static packbuf_status packbuf_i_join_part(const packbuf_join *join, const packbuf_join_part *of, const char *path,
                                          packbuf_join_part *part, packbuf_error *error) {
  packbuf_node node;
  packbuf_status status = packbuf_find(&join->views[of->fragment], 0, path, &node, error);
  *part = *of;
  part->node = status == PACKBUF_OK ? node.index : PACKBUF_NO_NODE;
  return status == PACKBUF_NOT_FOUND ? PACKBUF_OK : packbuf_i_of_fragment(error, status, of->fragment);
}

PACKBUF_API packbuf_status packbuf_join_parts(const packbuf_join *join, const char *path, packbuf_join_part *parts,
                                              uint64_t capacity, uint64_t *count, packbuf_error *error) {
  const packbuf_join_field *field = NULL;
  int nested = 0, any = 0;
  packbuf_status status = packbuf_i_join_find(join, path, &field, &nested, error);
  if (status != PACKBUF_OK) return status;
  for (uint32_t i = 0; i < field->part_count; i++) {
    packbuf_join_part part = field->parts[i];
    if (nested) status = packbuf_i_join_part(join, &field->parts[i], path, &part, error);
    if (status != PACKBUF_OK) return status;
    any |= part.node != PACKBUF_NO_NODE;
    if (i < capacity) parts[i] = part;
  }
  if (!any && nested)
    return packbuf_i_fail(error, PACKBUF_NOT_FOUND, "no fragment has this path", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  *count = field->part_count;
  return PACKBUF_OK;
}

/* Rows of a field, or of a path within it (NULL: the field), into slots; what no part holds is missing. */
static packbuf_status packbuf_i_join_read(const packbuf_join *join, const packbuf_join_field *field, const char *path,
                                          uint64_t first, uint64_t count, packbuf_arena *arena, packbuf_i_slots out,
                                          packbuf_error *error) {
  for (uint64_t i = 0; i < count; i++) *packbuf_i_slot(out, i) = packbuf_missing();
  for (uint32_t i = 0; i < field->part_count; i++) {
    packbuf_join_part part = field->parts[i];
    const packbuf_view *view = &join->views[part.fragment];
    const uint64_t end = part.first_row + part.rows, from = part.first_row > first ? part.first_row : first,
                   to = end < first + count ? end : first + count;
    packbuf_i_reader r;
    packbuf_i_slots slots = out;
    packbuf_status status = PACKBUF_OK;
    if (from >= to) continue;
    if (path) status = packbuf_i_join_part(join, &field->parts[i], path, &part, error);
    if (status != PACKBUF_OK) return status;
    if (part.node == PACKBUF_NO_NODE) continue;
    slots.first = packbuf_i_slot(out, from - first);
    r = packbuf_i_begin_read(view, arena, error);
    status = packbuf_i_end_read(
        &r, packbuf_i_read_node(&r, part.node, view->node_count, from - part.first_row, to - from, slots, 1));
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(error, status, part.fragment);
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_join_range(const packbuf_join *join, uint64_t first, uint64_t count,
                                           packbuf_error *error) {
  if (first <= join->rows && count <= join->rows - first) return PACKBUF_OK;
  return packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "the fragments have fewer rows", PACKBUF_NOWHERE, first);
}

PACKBUF_API packbuf_status packbuf_join_read_column(const packbuf_join *join, const char *path, uint64_t first,
                                                    uint64_t count, packbuf_arena *arena, packbuf_value *values,
                                                    packbuf_error *error) {
  const packbuf_join_field *field = NULL;
  packbuf_i_slots out;
  int nested = 0;
  uint64_t parts;
  packbuf_status status = packbuf_i_join_range(join, first, count, error);
  if (status == PACKBUF_OK) status = packbuf_i_join_find(join, path, &field, &nested, error);
  if (status == PACKBUF_OK && nested) status = packbuf_join_parts(join, path, NULL, 0, &parts, error);
  if (status != PACKBUF_OK) return status;
  out.first = values;
  out.step = sizeof *values;
  return packbuf_i_join_read(join, field, nested ? path : NULL, first, count, arena, out, error);
}

PACKBUF_API packbuf_status packbuf_join_read_rows(const packbuf_join *join, uint64_t first, uint64_t count,
                                                  packbuf_arena *arena, packbuf_value *rows, packbuf_error *error) {
  const uint32_t width = join->field_count;
  packbuf_entry *entries = NULL;
  uint64_t cells, bytes, most = UINT64_MAX;
  packbuf_status status = packbuf_i_join_range(join, first, count, error);
  if (status != PACKBUF_OK) return status;
  for (uint32_t i = 0; i < join->view_count; i++)
    if (join->views[i].limits.decoded_bytes < most) most = join->views[i].limits.decoded_bytes;
  if (!packbuf_i_mul(width, count, &cells) || !packbuf_i_mul(cells, sizeof *entries, &bytes) || bytes > most)
    return packbuf_i_broken(error, PACKBUF_RULE_D9, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (bytes > SIZE_MAX) return packbuf_i_no_memory(error);
  if (cells) entries = (packbuf_entry *)packbuf_arena_alloc(arena, (size_t)bytes, 8);
  if (cells && !entries) return packbuf_i_no_memory(error);
  for (uint32_t k = 0; cells && k < width; k++) {
    const packbuf_text name = join->fields[k].name;
    packbuf_i_slots out;
    out.first = &entries[k].value;
    out.step = width * sizeof *entries;
    status = packbuf_i_join_read(join, &join->fields[k], NULL, first, count, arena, out, error);
    if (status != PACKBUF_OK) return status;
    for (uint64_t i = 0; i < count; i++) entries[i * width + k].key = packbuf_string_n(name.data, name.size);
  }
  for (uint64_t i = 0; i < count; i++) {
    packbuf_entry *row = cells ? entries + i * width : NULL;
    size_t kept = 0;
    for (uint32_t k = 0; k < width; k++) {
      if (row[k].value.kind == PACKBUF_MISSING) continue;
      if (kept != k) row[kept] = row[k];
      kept++;
    }
    rows[i] = packbuf_dict(row, kept);
  }
  return PACKBUF_OK;
}

/* A batch value that all fragments that have it agree upon. */
static packbuf_status packbuf_i_join_value(const packbuf_join *join, const packbuf_join_field *field,
                                           packbuf_arena *arena, packbuf_value *value, packbuf_error *error) {
  for (uint32_t i = 0; i < field->part_count; i++) {
    const packbuf_join_part *part = &field->parts[i];
    packbuf_value other;
    packbuf_status status =
        packbuf_read_cell(&join->views[part->fragment], part->node, 0, arena, i ? &other : value, error);
    if (status != PACKBUF_OK) return packbuf_i_of_fragment(error, status, part->fragment);
    if (i == 0 && (join->flags & PACKBUF_FIRST_VALUE)) return PACKBUF_OK;
    if (i && !packbuf_equal(value, &other))
      return packbuf_i_join_fail(
          error, PACKBUF_SCHEMA_MISMATCH,
          "fragments have different batch values of this name (PACKBUF_FIRST_VALUE, first_value: the first's)",
          field->name, part->fragment, PACKBUF_NOWHERE);
  }
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_join_read_batch_values(const packbuf_join *join, packbuf_arena *arena,
                                                          packbuf_value *value, packbuf_error *error) {
  packbuf_entry *entries = (packbuf_entry *)packbuf_i_array(arena, join->value_count, sizeof *entries);
  if (!entries) return packbuf_i_no_memory(error);
  for (uint32_t i = 0; i < join->value_count; i++) {
    const packbuf_join_field *field = &join->values[i];
    packbuf_status status = packbuf_i_join_value(join, field, arena, &entries[i].value, error);
    if (status != PACKBUF_OK) return status;
    entries[i].key = packbuf_string_n(field->name.data, field->name.size);
  }
  *value = packbuf_dict(entries, join->value_count);
  return PACKBUF_OK;
}
