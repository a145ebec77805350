/* tools/cmd_diff.c: `packbuf diff`: do two packed buffers hold equal batches (section 16 of the spec)? How they are
 * stored does not count.
 * May use: packbuf.h, cells, tags. Must not know: the format. */
#include "tool.h"

typedef struct side {
  source from;
  packbuf_view view;
  packbuf_arena arena;
} side;

typedef struct job {
  side a, b;
  output out;
  uint64_t found, most;
} job;

/* One difference; 0 when no more are wanted. */
static int found_one(job *to, const char *line) {
  to->found++;
  if (to->found <= to->most) {
    char shown[2048];
    show_text(line, strlen(line), shown, sizeof shown);
    text_puts(&to->out.buffer, shown);
    text_puts(&to->out.buffer, "\n");
  }
  return to->found < to->most;
}

/* A cell as text of at most some 60 characters. */
static void shorten(const packbuf_value *value, char *to, size_t size) {
  text all = {NULL, 0, 0};
  size_t n;
  if (value->kind == PACKBUF_MISSING) {
    snprintf(to, size, "missing");
    return;
  }
  print_value(&all, value);
  n = all.size;
  if (n >= size) {
    for (n = size - 4; n && ((unsigned char)all.data[n] & 0xc0) == 0x80;) n--;
    memcpy(to, all.data, n);
    strcpy(to + n, "...");
  } else {
    memcpy(to, all.data, n);
    to[n] = 0;
  }
  text_free(&all);
}

static const packbuf_value *entry_of(const packbuf_value *dict, const packbuf_value *key) {
  size_t i;
  for (i = 0; i < dict->as.dict.count; i++)
    if (packbuf_equal(&dict->as.dict.entries[i].key, key)) return &dict->as.dict.entries[i].value;
  return NULL;
}

/* Goes down to the first place where two cells differ; `path` grows on the way. */
static void first_difference(const packbuf_value **a, const packbuf_value **b, text *path) {
  static const packbuf_value missing = {PACKBUF_MISSING, {0}};
  size_t i;
  for (;;) {
    const packbuf_value *x = *a, *y = *b;
    if (x->kind == PACKBUF_DICT && y->kind == PACKBUF_DICT) {
      const packbuf_value *key = NULL;
      for (i = 0; i < x->as.dict.count + y->as.dict.count && !key; i++) {
        const packbuf_value *k =
            i < x->as.dict.count ? &x->as.dict.entries[i].key : &y->as.dict.entries[i - x->as.dict.count].key;
        *a = entry_of(x, k);
        *b = entry_of(y, k);
        if (!*a || !*b || !packbuf_equal(*a, *b)) key = k;
      }
      if (!key || key->kind != PACKBUF_STRING) break;
      if (!*a) *a = &missing;
      if (!*b) *b = &missing;
      {
        char *step = escape_path(key->as.text.data, key->as.text.size);
        text_puts(path, ".");
        text_puts(path, step);
        free(step);
      }
    } else if (x->kind == PACKBUF_LIST && y->kind == PACKBUF_LIST && x->as.list.count == y->as.list.count) {
      for (i = 0; i < x->as.list.count && packbuf_equal(&x->as.list.items[i], &y->as.list.items[i]);) i++;
      if (i == x->as.list.count) break;
      *a = &x->as.list.items[i];
      *b = &y->as.list.items[i];
      text_printf(path, "[%zu]", i);
    } else {
      break;
    }
  }
}

static int cell_differs(job *to, const char *what, const char *name, uint64_t row, const packbuf_value *a,
                        const packbuf_value *b) {
  text path = {NULL, 0, 0}, line = {NULL, 0, 0};
  char left[64], right[64];
  const packbuf_value *x = a, *y = b;
  int more;
  text_puts(&path, name);
  first_difference(&x, &y, &path);
  if (!x || !y) { /* differing keys that are no strings */
    x = a;
    y = b;
  }
  text_add(&path, "", 1);
  shorten(x, left, sizeof left);
  shorten(y, right, sizeof right);
  text_printf(&line, "%s %s", what, path.data);
  if (row != PACKBUF_NOWHERE) text_printf(&line, ", row %llu", (unsigned long long)row);
  text_printf(&line, ": %s | %s", left, right);
  text_add(&line, "", 1);
  more = found_one(to, line.data);
  text_free(&path);
  text_free(&line);
  return more;
}

/* A column of both: 0 when no more differences are wanted. */
static int diff_column(job *to, unsigned scope, const packbuf_node *a, const packbuf_node *b, const char *name) {
  uint64_t at, n, i, rows = a->rows < b->rows ? a->rows : b->rows;
  packbuf_error error;
  int more = 1;
  for (at = 0; more && at < rows; at += n) {
    packbuf_value *x, *y;
    n = rows - at < 256 ? rows - at : 256;
    x = (packbuf_value *)must_arena(&to->a.arena, (size_t)n * sizeof *x, sizeof(void *));
    y = (packbuf_value *)must_arena(&to->b.arena, (size_t)n * sizeof *y, sizeof(void *));
    if (packbuf_read_column(&to->a.view, a->index, at, n, &to->a.arena, x, &error))
      fail_status(to->a.from.name, &error);
    if (packbuf_read_column(&to->b.view, b->index, at, n, &to->b.arena, y, &error))
      fail_status(to->b.from.name, &error);
    for (i = 0; more && i < n; i++)
      if (!packbuf_equal(&x[i], &y[i]))
        more = cell_differs(to, scope ? "value" : "field", name, scope ? PACKBUF_NOWHERE : at + i, &x[i], &y[i]);
    packbuf_arena_free(&to->a.arena);
    packbuf_arena_free(&to->b.arena);
    progress("comparing", at + n, rows);
  }
  return more;
}

static int only_in(job *to, unsigned scope, const char *name, const char *file) {
  text line = {NULL, 0, 0};
  int more;
  text_printf(&line, "%s %s: only in %s", scope ? "value" : "field", name, file);
  text_add(&line, "", 1);
  more = found_one(to, line.data);
  text_free(&line);
  return more;
}

static int diff_scope(job *to, unsigned scope) {
  columns a, b;
  packbuf_node other;
  packbuf_error error;
  size_t i;
  int more = 1;
  select_columns(&a, &to->a.view, to->a.from.name, scope, NULL);
  select_columns(&b, &to->b.view, to->b.from.name, scope, NULL);
  for (i = 0; more && i < a.count; i++) {
    packbuf_status status = packbuf_find(&to->b.view, scope, a.items[i].path, &other, &error);
    if (status == PACKBUF_NOT_FOUND) more = only_in(to, scope, a.items[i].path, to->a.from.name);
    else if (status) fail_status(to->b.from.name, &error);
    else more = diff_column(to, scope, &a.items[i].node, &other, a.items[i].path);
  }
  for (i = 0; more && i < b.count; i++) {
    packbuf_status status = packbuf_find(&to->a.view, scope, b.items[i].path, &other, &error);
    if (status == PACKBUF_NOT_FOUND) more = only_in(to, scope, b.items[i].path, to->b.from.name);
    else if (status) fail_status(to->a.from.name, &error);
  }
  columns_free(&a);
  columns_free(&b);
  return more;
}

/* The text of a metadata key of the same node in the other buffer. */
static int has_pair(const packbuf_view *view, const char *path, const packbuf_metadata *wanted) {
  packbuf_metadata pair;
  uint32_t i;
  for (i = 0; i < view->metadata_count; i++) {
    char *other;
    int same;
    if (packbuf_get_metadata(view, i, &pair, NULL)) continue;
    if (pair.key.size != wanted->key.size || memcmp(pair.key.data, wanted->key.data, pair.key.size) != 0) continue;
    if (pair.text.size != wanted->text.size || memcmp(pair.text.data, wanted->text.data, pair.text.size) != 0) continue;
    other = pair.node == PACKBUF_NO_NODE ? NULL : node_path(view, pair.node);
    same = !path == !other && (!path || strcmp(path, other) == 0);
    free(other);
    if (same) return 1;
  }
  return 0;
}

static int diff_metadata(job *to, const side *a, const side *b) {
  packbuf_metadata pair;
  uint32_t i;
  int more = 1;
  for (i = 0; more && i < a->view.metadata_count; i++) {
    char *path;
    text line = {NULL, 0, 0};
    if (packbuf_get_metadata(&a->view, i, &pair, NULL)) continue;
    path = pair.node == PACKBUF_NO_NODE ? NULL : node_path(&a->view, pair.node);
    if (!has_pair(&b->view, path, &pair)) {
      text_printf(&line, "metadata %s%s%.*s: %.*s only in %s", path ? path : "", path ? " " : "", (int)pair.key.size,
                  pair.key.data, pair.text.size < 60 ? (int)pair.text.size : 60, pair.text.data, a->from.name);
      text_add(&line, "", 1);
      more = found_one(to, line.data);
    }
    text_free(&line);
    free(path);
  }
  return more;
}

static void open_side(const verb *command, side *to, const char *name, const char *decoded) {
  packbuf_error error;
  open_packed(command, &to->from, &to->view, name, decoded);
  if (packbuf_verify(&to->view, PACKBUF_LEVEL_FULL, &error)) fail_status(name, &error);
  packbuf_arena_init(&to->arena, NULL);
}

int run_diff(const verb *command, int argc, char **argv) {
  static job it;
  const char *most = NULL, *decoded = NULL;
  int metadata = 0, quiet = 0, more;
  char line[128];
  strings rest = {NULL, 0};
  const option options[] = {{0, "max", NULL, &most, NULL},
                            {0, "metadata", &metadata, NULL, NULL},
                            {'q', "quiet", &quiet, NULL, NULL},
                            {0, "decoded-bytes", NULL, &decoded, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 2) fail_usage(command, "two files are needed");
  it.most = most ? parse_number(command, "max", most) : 10;
  if (!it.most) fail_usage(command, "--max must be at least 1");
  open_side(command, &it.a, rest.items[0], decoded);
  open_side(command, &it.b, rest.items[1], decoded);
  output_open(&it.out, "-");
  snprintf(line, sizeof line, "rows: %llu | %llu", (unsigned long long)it.a.view.rows,
           (unsigned long long)it.b.view.rows);
  more = it.a.view.rows == it.b.view.rows || found_one(&it, line);
  if (more) more = diff_scope(&it, 0);
  if (more) more = diff_scope(&it, 1);
  if (more && metadata) more = diff_metadata(&it, &it.a, &it.b);
  if (more && metadata) more = diff_metadata(&it, &it.b, &it.a);
  if (!more && it.found >= it.most)
    text_printf(&it.out.buffer, "(stopped after %llu differences)\n", (unsigned long long)it.found);
  progress_end();
  if (quiet) it.out.buffer.size = 0;
  output_close(&it.out);
  source_close(&it.a.from);
  source_close(&it.b.from);
  strings_free(&rest);
  return it.found ? TOOL_NO : TOOL_OK;
}
