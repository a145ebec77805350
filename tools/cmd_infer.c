/* tools/cmd_infer.c: `packbuf infer`: what the columns of a .jsonl file would be stored as, and why.
 * May use: packbuf.h, JSON lines. Must not know: how a batch is written. */
#include "table.h"

typedef struct keys {
  packbuf_text *items; /* top-level keys in first-seen order */
  size_t count;
} keys;

static void collect_keys(const jsonl *from, keys *to) {
  name_set seen = {NULL, 0, 0};
  size_t i, k, capacity = 0;
  memset(to, 0, sizeof *to);
  for (i = 0; i < from->count; i++)
    for (k = 0; k < from->rows[i].as.dict.count; k++) {
      const packbuf_value *key = &from->rows[i].as.dict.entries[k].key;
      if (name_set_add(&seen, key->as.text.data, key->as.text.size, "")) continue;
      if (to->count == capacity) {
        capacity = capacity ? capacity * 2 : 16;
        to->items = (packbuf_text *)must_resize(to->items, capacity * sizeof *to->items);
      }
      to->items[to->count].data = key->as.text.data;
      to->items[to->count++].size = key->as.text.size;
    }
  name_set_free(&seen);
}

/* The column of one key; `hint` is where it was in the row before. */
static void fill_column(const jsonl *from, const packbuf_text *key, packbuf_value *column) {
  size_t i, k, hint = 0;
  for (i = 0; i < from->count; i++) {
    const packbuf_entry *entries = from->rows[i].as.dict.entries;
    size_t count = from->rows[i].as.dict.count;
    column[i] = packbuf_missing();
    for (k = 0; k < count; k++) {
      size_t at = (hint + k) % count;
      if (entries[at].key.as.text.size == key->size &&
          memcmp(entries[at].key.as.text.data, key->data, key->size) == 0) {
        column[i] = entries[at].value;
        hint = at;
        break;
      }
    }
  }
}

static const char *kind_word(const packbuf_inferred *node) {
  const char *codec = packbuf_codec_name(node->codec);
  if (node->kind == PACKBUF_NODE_DICT) return "dict";
  if (node->kind == PACKBUF_NODE_LIST) return "list";
  return codec ? codec : "?";
}

static void add_line(table *to, const packbuf_inferred *node) {
  char dtype[40], shown[64];
  dtype_word(node->dtype, dtype, sizeof dtype);
  snprintf(shown, sizeof shown, "%s%s%s", dtype, node->typed ? "+types" : "",
           node->kind == PACKBUF_LEAF && !node->accepted ? " (named only)" : "");
  table_puts(to, node->path);
  table_puts(to, kind_word(node));
  table_puts(to, shown);
  table_number(to, node->rows);
  table_number(to, node->nulls);
  table_number(to, node->missing);
  table_puts(to, node->reason ? node->reason : "");
}

static void add_json(text *to, const packbuf_inferred *node) {
  char dtype[40];
  dtype_word(node->dtype, dtype, sizeof dtype);
  text_puts(to, "{\"path\":");
  print_string(to, node->path, strlen(node->path));
  text_printf(to, ",\"kind\":\"%s\"", node->kind == PACKBUF_LEAF ? "leaf" : kind_word(node));
  if (node->kind == PACKBUF_LEAF) {
    text_printf(to, ",\"codec\":\"%s\",\"accepted\":%s", kind_word(node), node->accepted ? "true" : "false");
    if (*dtype)
      text_printf(to, ",\"dtype\":\"%s\",\"rank\":%u,\"types\":%s", dtype, (unsigned)node->rank,
                  node->typed ? "true" : "false");
  } else {
    text_printf(to, ",\"children\":%lu", (unsigned long)node->child_count);
  }
  text_printf(to, ",\"rows\":%llu,\"nulls\":%llu,\"missing\":%llu,\"reason\":", (unsigned long long)node->rows,
              (unsigned long long)node->nulls, (unsigned long long)node->missing);
  print_string(to, node->reason ? node->reason : "", node->reason ? strlen(node->reason) : 0);
  text_puts(to, "}");
}

/* Ends the program with the line of the file that the error is about. */
static void fail_infer(const jsonl *rows, const packbuf_error *error) TOOL_NORETURN;
static void fail_infer(const jsonl *rows, const packbuf_error *error) {
  char line[1024];
  packbuf_error_format(error, line, sizeof line);
  if (error->row < rows->count) fail(rows->file, "line %llu: %s", (unsigned long long)rows->lines[error->row], line);
  fail(rows->file, "%s", line);
}

static void infer_column(const jsonl *rows, const packbuf_text *key, packbuf_value *column, packbuf_mode mode,
                         text *json, table *lines, int *any) {
  packbuf_arena arena;
  packbuf_inference result;
  packbuf_error error;
  char *root = (char *)must_alloc(key->size + 1);
  uint32_t i;
  memcpy(root, key->data, key->size);
  root[key->size] = 0;
  packbuf_arena_init(&arena, NULL);
  fill_column(rows, key, column);
  if (packbuf_infer(column, rows->count, root, mode, &arena, &result, &error)) fail_infer(rows, &error);
  for (i = 0; i < result.count; i++) {
    if (lines) {
      add_line(lines, &result.nodes[i]);
    } else {
      text_puts(json, *any ? ",\n" : "\n");
      add_json(json, &result.nodes[i]);
    }
    *any = 1;
  }
  packbuf_arena_free(&arena);
  free(root);
}

int run_infer(const verb *command, int argc, char **argv) {
  static const char *const heading[] = {"PATH", "CODEC", "DTYPE", "ROWS", "NULL", "MISSING", "REASON"};
  static packbuf_arena arena;
  int json = 0, compat = 0, any = 0;
  strings rest = {NULL, 0};
  const option options[] = {
      {0, "json", &json, NULL, NULL}, {0, "compat", &compat, NULL, NULL}, {0, NULL, NULL, NULL, NULL}};
  table lines = {{NULL, 0}, 7, 1u << 3 | 1u << 4 | 1u << 5};
  packbuf_mode mode;
  source from;
  jsonl rows;
  tag_context context;
  keys names;
  packbuf_value *column;
  output out;
  size_t i;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one IN.jsonl is needed (- is stdin)");
  mode = compat ? PACKBUF_COMPAT : PACKBUF_STRICT;
  packbuf_arena_init(&arena, NULL);
  memset(&context, 0, sizeof context);
  context.arena = &arena;
  source_open(&from, rest.items[0]);
  if (strrchr(from.name, '/')) {
    char *folder = (char *)must_arena(&arena, strlen(from.name) + 1, 1);
    strcpy(folder, from.name);
    strrchr(folder, '/')[1] = 0;
    context.folder = folder;
  }
  jsonl_read(&from, &context, &rows);
  collect_keys(&rows, &names);
  column = (packbuf_value *)must_alloc((size_t)rows.count * sizeof *column);
  output_open(&out, "-");
  if (json) {
    text_printf(&out.buffer, "{\"rows\":%llu,\"mode\":\"%s\",\"nodes\":[", (unsigned long long)rows.count,
                compat ? "compat" : "strict");
  } else {
    for (i = 0; i < 7; i++) table_puts(&lines, heading[i]);
  }
  for (i = 0; i < names.count; i++)
    infer_column(&rows, &names.items[i], column, mode, &out.buffer, json ? NULL : &lines, &any);
  if (json) text_puts(&out.buffer, any ? "\n]}\n" : "]}\n");
  else table_print(&lines, &out);
  output_close(&out);
  free(column);
  free(names.items);
  free(rows.rows);
  free(rows.lines);
  packbuf_arena_free(&arena);
  source_close(&from);
  strings_free(&rest);
  return TOOL_OK;
}
