/* tools/cmd_ranges.c: `packbuf ranges`: which bytes of a packed buffer a selection of fields and rows needs, beside
 * head and index.
 * May use: packbuf.h. Must not know: how ranges are fetched. */
#include "tool.h"

#include <errno.h>

/* The comma-separated patterns of one list; `\,` is a comma. */
static void split_patterns(strings *to, const char *list) {
  text pattern = {NULL, 0, 0};
  for (;; list++) {
    if (list[0] == '\\' && list[1] == ',') {
      text_add(&pattern, ++list, 1);
    } else if (list[0] == '\\' && list[1]) {
      text_add(&pattern, list++, 2);
    } else if (*list && *list != ',') {
      text_add(&pattern, list, 1);
    } else {
      text_add(&pattern, "", 1);
      strings_add(to, strcpy((char *)must_alloc(pattern.size), pattern.data));
      pattern.size = 0;
      if (!*list) break;
    }
  }
  text_free(&pattern);
}

/* A number up to `:` or the end; `otherwise` when there is none. */
static int64_t row_number(const verb *command, const char *all, const char **at, int64_t otherwise) {
  char *end;
  long long number;
  if (**at == ':' || **at == 0) return otherwise;
  errno = 0;
  number = strtoll(*at, &end, 10);
  if (end == *at || errno || (*end != ':' && *end != 0))
    fail_usage(command, "--rows: '%s' is no range such as 3, 10:20, 10:, :20, -5: or ::8", all);
  *at = end;
  return number;
}

/* "3", "10:20", "::8": as Python's slices; one number is a list of one row, which must be there. */
static packbuf_row_selection rows_wanted(const verb *command, const char *all, int64_t *single) {
  const char *at = all;
  int64_t first, stop, step = 1;
  if (!all) return packbuf_rows_all();
  first = row_number(command, all, &at, PACKBUF_ROWS_BEGIN);
  if (*at == 0) {
    if (at == all) fail_usage(command, "--rows: '' is no range such as 3, 10:20, 10:, :20, -5: or ::8");
    *single = first;
    return packbuf_rows_index(single, 1);
  }
  at++;
  stop = row_number(command, all, &at, PACKBUF_ROWS_END);
  if (*at == ':') {
    at++;
    step = row_number(command, all, &at, 1);
  }
  if (*at != 0 || step == 0)
    fail_usage(command, "--rows: '%s' is no range such as 3, 10:20, 10:, :20, -5: or ::8", all);
  if (step < 0) {
    if (all[0] == ':') first = PACKBUF_ROWS_END;
    if (stop == PACKBUF_ROWS_END) stop = PACKBUF_ROWS_BEGIN;
  }
  return packbuf_rows_range(first, stop, step);
}

static void print_ranges(output *out, const packbuf_view *view, const packbuf_range *ranges, uint64_t count, int json) {
  uint64_t i, bytes = 0;
  for (i = 0; i < count; i++) bytes += ranges[i].length;
  if (json)
    text_printf(&out->buffer, "{\"total_length\":%llu,\"head_and_index\":%llu,\"data_bytes\":%llu,\"ranges\":[",
                (unsigned long long)view->total_length, (unsigned long long)(view->head_length + view->index_length),
                (unsigned long long)bytes);
  for (i = 0; i < count; i++) {
    text_printf(&out->buffer, json ? "%s[%llu,%llu]" : "%s%llu %llu\n", json && i ? "," : "",
                (unsigned long long)ranges[i].offset, (unsigned long long)ranges[i].length);
    output_text(out);
  }
  if (json) text_puts(&out->buffer, "]}\n");
}

int run_ranges(const verb *command, int argc, char **argv) {
  const char *range = NULL, *gap = NULL;
  int json = 0, chunks = 0, values = 0;
  strings rest = {NULL, 0}, lists = {NULL, 0}, patterns = {NULL, 0};
  const option options[] = {{0, "fields", NULL, NULL, &lists},  {0, "rows", NULL, &range, NULL},
                            {0, "gap", NULL, &gap, NULL},       {0, "chunks", &chunks, NULL, NULL},
                            {0, "values", &values, NULL, NULL}, {0, "json", &json, NULL, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  packbuf_selection selections[2];
  packbuf_row_selection rows;
  packbuf_arena arena;
  packbuf_error error;
  packbuf_view view;
  packbuf_range *ranges;
  source from;
  output out;
  uint64_t count;
  int64_t single = 0;
  size_t i;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one FILE.pbuf is needed");
  rows = rows_wanted(command, range, &single);
  for (i = 0; i < lists.count; i++) split_patterns(&patterns, lists.items[i]);
  source_open(&from, rest.items[0]);
  packbuf_arena_init(&arena, NULL);
  if (packbuf_open_partial(&view, from.data, from.size, NULL, 0, PACKBUF_OPEN_TABLES, NULL, &error) ||
      packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error) ||
      packbuf_select(&view, 0, patterns.items, patterns.count, rows, &arena, &selections[0], &error) ||
      packbuf_select(&view, 1, NULL, 0, packbuf_rows_all(), &arena, &selections[1], &error) ||
      packbuf_select_ranges(selections, values ? 2 : 1, gap ? parse_number(command, "gap", gap) : 0,
                            chunks ? PACKBUF_RANGES_CHUNKS : 0, &arena, &ranges, &count, &error)) {
    if (error.code == PACKBUF_OUT_OF_RANGE && range && !strchr(range, ':'))
      fail(from.name, "row %s lies beyond the end: there are %llu rows", range, (unsigned long long)view.rows);
    fail_status(from.name, &error);
  }
  output_open(&out, "-");
  print_ranges(&out, &view, ranges, count, json);
  output_close(&out);
  packbuf_arena_free(&arena);
  source_close(&from);
  for (i = 0; i < patterns.count; i++) {
    union {
      const char *in;
      char *mine;
    } item;
    item.in = patterns.items[i];
    free(item.mine);
  }
  strings_free(&patterns);
  strings_free(&lists);
  strings_free(&rest);
  return TOOL_OK;
}
