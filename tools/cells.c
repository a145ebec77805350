/* tools/cells.c: reading columns of a packed buffer, some rows at a time, and printing their cells. A leaf that this
 * version cannot read prints as $unreadable and leaves the rest readable.
 * May use: packbuf.h, tags, names. Must not know: where the text goes. */
#include "tool.h"

static void add_column(columns *to, const packbuf_view *view, const packbuf_node *node) {
  selected *item;
  to->items = (selected *)must_resize(to->items, (to->count + 1) * sizeof *to->items);
  item = &to->items[to->count++];
  memset(item, 0, sizeof *item);
  item->node = *node;
  item->path = node_path(view, node->index);
  item->label_size = node->parent == PACKBUF_NO_NODE ? node->name.size : strlen(item->path);
  item->label = (char *)must_alloc(item->label_size + 1);
  memcpy(item->label, node->parent == PACKBUF_NO_NODE ? node->name.data : item->path, item->label_size);
  item->label[item->label_size] = 0;
}

static void select_all(columns *to, const packbuf_view *view, const char *file, unsigned scope) {
  packbuf_node node;
  packbuf_error error;
  uint32_t index;
  for (index = 0; index < view->node_count; index += node.descendants + 1) {
    if (packbuf_get_node(view, index, &node, &error)) fail_status(file, &error);
    if (node.scope == scope) add_column(to, view, &node);
  }
}

static void add_once(columns *to, const packbuf_view *view, const char *file, const char *path,
                     const packbuf_node *node) {
  size_t i;
  for (i = 0; i < to->count; i++)
    if (to->items[i].node.index == node->index) fail(file, "%s is asked for twice", path);
  add_column(to, view, node);
}

/* The columns of a pattern: what it matches, not what lies below that. */
static void add_pattern(columns *to, const packbuf_view *view, const char *file, unsigned scope, const char *pattern) {
  packbuf_arena arena;
  packbuf_selection selection;
  packbuf_error error;
  packbuf_node node;
  uint32_t i;
  packbuf_arena_init(&arena, NULL);
  if (packbuf_select(view, scope, &pattern, 1, packbuf_rows_all(), &arena, &selection, &error))
    fail_status(file, &error);
  for (i = 0; i < selection.node_count; i++) {
    if (packbuf_get_node(view, selection.nodes[i], &node, &error)) fail_status(file, &error);
    if (selection.flags[node.index] == 2 && (node.parent == PACKBUF_NO_NODE || selection.flags[node.parent] != 2))
      add_once(to, view, file, pattern, &node);
  }
  packbuf_arena_free(&arena);
}

/* One comma-separated list. */
static void select_list(columns *to, const packbuf_view *view, const char *file, unsigned scope, const char *list) {
  packbuf_node node;
  text path = {NULL, 0, 0};
  for (;; list++) {
    if (list[0] == '\\' && list[1] == ',') {
      text_add(&path, ++list, 1);
    } else if (list[0] == '\\' && list[1]) {
      text_add(&path, list++, 2);
    } else if (*list && *list != ',') {
      text_add(&path, list, 1);
    } else {
      text_add(&path, "", 1);
      if (strchr(path.data, '*')) {
        add_pattern(to, view, file, scope, path.data);
      } else {
        find_node(view, file, scope, path.data, &node);
        add_once(to, view, file, path.data, &node);
      }
      path.size = 0;
      if (!*list) break;
    }
  }
  text_free(&path);
}

void select_columns(columns *to, const packbuf_view *view, const char *file, unsigned scope, const strings *lists) {
  size_t i;
  memset(to, 0, sizeof *to);
  if (!lists || !lists->count) select_all(to, view, file, scope);
  for (i = 0; lists && i < lists->count; i++) select_list(to, view, file, scope, lists->items[i]);
}

void columns_free(columns *list) {
  size_t i;
  for (i = 0; i < list->count; i++) {
    free(list->items[i].path);
    free(list->items[i].label);
  }
  free(list->items);
  memset(list, 0, sizeof *list);
}

uint64_t batch_rows(size_t column_count) {
  uint64_t rows = 65536 / (column_count ? column_count : 1);
  return rows > 256 ? 256 : rows ? rows : 1;
}

void read_cells(selected *from, const packbuf_view *view, const char *file, uint64_t first, uint64_t count,
                packbuf_arena *arena) {
  packbuf_error error;
  packbuf_status status;
  from->first = first;
  from->values = (packbuf_value *)must_arena(arena, (size_t)count * sizeof *from->values, sizeof(void *));
  status = packbuf_read_column(view, from->node.index, first, count, arena, from->values, &error);
  if (unreadable(status)) from->values = NULL;
  else if (status) fail_status(file, &error);
}

static int print_node(text *to, const packbuf_view *view, const char *file, const packbuf_node *node, uint64_t row,
                      packbuf_arena *arena);

/* A cell of a dict or list node, put together from its children. */
static int print_children(text *to, const packbuf_view *view, const char *file, const packbuf_node *node, uint64_t row,
                          packbuf_arena *arena) {
  packbuf_column opened;
  packbuf_error error;
  packbuf_node child;
  uint32_t at, end = node->index + node->descendants;
  int state, any = 0, dict = node->kind == PACKBUF_NODE_DICT;
  if (packbuf_open_column(view, node->index, &opened, &error) || packbuf_cell_state(&opened, row, &state, &error))
    fail_status(file, &error);
  if (state < 1) {
    text_puts(to, state < 0 ? "{\"$missing\":true}" : "null");
    return state == 0;
  }
  text_puts(to, dict ? "{" : "[");
  for (at = node->index + 1; at <= end; at += child.descendants + 1) {
    size_t before = to->size;
    if (packbuf_get_node(view, at, &child, &error)) fail_status(file, &error);
    if (any) text_puts(to, ",");
    if (dict) {
      print_string(to, child.name.data, child.name.size);
      text_puts(to, ":");
    }
    if (print_node(to, view, file, &child, row, arena)) any = 1;
    else to->size = before;
  }
  text_puts(to, dict ? "}" : "]");
  return 1;
}

static int print_node(text *to, const packbuf_view *view, const char *file, const packbuf_node *node, uint64_t row,
                      packbuf_arena *arena) {
  packbuf_value value;
  packbuf_error error;
  packbuf_status status = packbuf_read_cell(view, node->index, row, arena, &value, &error);
  if (!status) {
    print_value(to, &value);
    return value.kind != PACKBUF_MISSING;
  }
  if (!unreadable(status)) fail_status(file, &error);
  if (node->kind != PACKBUF_LEAF) return print_children(to, view, file, node, row, arena);
  text_printf(to, "{\"$unreadable\":\"%s\"}", packbuf_status_name(status));
  return 1;
}

int print_cell(text *to, const selected *from, const packbuf_view *view, const char *file, uint64_t row,
               packbuf_arena *arena) {
  if (!from->values) return print_node(to, view, file, &from->node, row, arena);
  print_value(to, &from->values[row - from->first]);
  return from->values[row - from->first].kind != PACKBUF_MISSING;
}
