/* tools/cmd_unpack.c: `packbuf unpack` and `packbuf cat`: rows as JSON lines, a folder of files, or the cells of one
 * column.
 * May use: packbuf.h, cells, export. Must not know: how files are laid out. */
#include "export.h"

static void verify_first(const packbuf_view *view, const char *file, packbuf_level level) {
  packbuf_error error;
  progress("verifying", 0, 0);
  if (packbuf_verify(view, level, &error)) fail_status(file, &error);
}

/* Rows as JSON lines, the missing keys left out. */
static void write_rows(const packbuf_view *view, const char *file, columns *list, row_range rows, output *out) {
  packbuf_arena arena;
  text *keys = (text *)must_alloc(list->count * sizeof *keys);
  uint64_t chunk = batch_rows(list->count), at, n, row;
  size_t i;
  for (i = 0; i < list->count; i++) {
    memset(&keys[i], 0, sizeof keys[i]);
    print_string(&keys[i], list->items[i].label, list->items[i].label_size);
    text_puts(&keys[i], ":");
  }
  packbuf_arena_init(&arena, NULL);
  for (at = 0; at < rows.count; at += n) {
    n = rows.count - at < chunk ? rows.count - at : chunk;
    for (i = 0; i < list->count; i++) read_cells(&list->items[i], view, file, rows.first + at, n, &arena);
    for (row = rows.first + at; row < rows.first + at + n; row++) {
      int any = 0;
      text_puts(&out->buffer, "{");
      for (i = 0; i < list->count; i++) {
        size_t before = out->buffer.size;
        if (any) text_puts(&out->buffer, ",");
        text_add(&out->buffer, keys[i].data, keys[i].size);
        if (print_cell(&out->buffer, &list->items[i], view, file, row, &arena)) any = 1;
        else out->buffer.size = before;
      }
      text_puts(&out->buffer, "}\n");
      output_text(out);
    }
    packbuf_arena_free(&arena);
    if (out->temporary) progress("unpacking", at + n, rows.count);
  }
  for (i = 0; i < list->count; i++) text_free(&keys[i]);
  free(keys);
}

int run_unpack(const verb *command, int argc, char **argv) {
  const char *name = NULL, *folder = NULL, *range = NULL, *decoded = NULL;
  int no_verify = 0, quiet = 0;
  strings rest = {NULL, 0}, fields = {NULL, 0};
  const option options[] = {{'o', "output", NULL, &name, NULL},         {'d', "directory", NULL, &folder, NULL},
                            {0, "fields", NULL, NULL, &fields},         {0, "rows", NULL, &range, NULL},
                            {0, "no-verify", &no_verify, NULL, NULL},   {'q', "quiet", &quiet, NULL, NULL},
                            {0, "decoded-bytes", NULL, &decoded, NULL}, {0, NULL, NULL, NULL, NULL}};
  source from;
  packbuf_view view;
  columns list;
  export_job job;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one FILE.pbuf is needed");
  if (name && folder) fail_usage(command, "either -o or -d");
  if (folder && !*folder) fail_usage(command, "-d needs a folder");
  memset(&job, 0, sizeof job);
  open_packed(command, &from, &view, rest.items[0], decoded);
  job.rows = parse_rows(command, range, from.name, view.rows);
  select_columns(&list, &view, from.name, 0, &fields);
  if (!no_verify) verify_first(&view, from.name, PACKBUF_LEVEL_FULL);
  if (folder) {
    job.view = &view;
    job.file = from.name;
    job.folder = folder;
    job.quiet = quiet;
    make_folder(folder);
    export_columns(&job, &list);
    if (view.value_count && !fields.count) export_values(&job);
    export_end(&job);
  } else {
    output out;
    output_open(&out, name ? name : "-");
    write_rows(&view, from.name, &list, job.rows, &out);
    output_close(&out);
  }
  progress_end();
  outputs_commit();
  columns_free(&list);
  source_close(&from);
  strings_free(&rest);
  strings_free(&fields);
  return TOOL_OK;
}

int run_cat(const verb *command, int argc, char **argv) {
  const char *range = NULL, *decoded = NULL;
  strings rest = {NULL, 0}, fields = {NULL, 0}, values = {NULL, 0};
  const option options[] = {{'f', "field", NULL, NULL, &fields},
                            {0, "value", NULL, NULL, &values},
                            {0, "rows", NULL, &range, NULL},
                            {0, "decoded-bytes", NULL, &decoded, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  source from;
  packbuf_view view;
  packbuf_arena arena;
  selected which;
  output out;
  row_range rows;
  uint64_t at, n, row;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one FILE.pbuf is needed");
  if (fields.count + values.count != 1) fail_usage(command, "one --field PATH or --value PATH is needed");
  open_packed(command, &from, &view, rest.items[0], decoded);
  memset(&which, 0, sizeof which);
  find_node(&view, from.name, values.count ? 1 : 0, values.count ? values.items[0] : fields.items[0], &which.node);
  rows = parse_rows(command, range, from.name, which.node.rows);
  verify_first(&view, from.name, PACKBUF_LEVEL_FULL);
  packbuf_arena_init(&arena, NULL);
  output_open(&out, "-");
  for (at = 0; at < rows.count; at += n) {
    n = rows.count - at < batch_rows(1) ? rows.count - at : batch_rows(1);
    read_cells(&which, &view, from.name, rows.first + at, n, &arena);
    for (row = rows.first + at; row < rows.first + at + n; row++) {
      print_cell(&out.buffer, &which, &view, from.name, row, &arena);
      text_puts(&out.buffer, "\n");
      output_text(&out);
    }
    packbuf_arena_free(&arena);
  }
  output_close(&out);
  source_close(&from);
  strings_free(&rest);
  strings_free(&fields);
  strings_free(&values);
  return TOOL_OK;
}
