/* tools/jsonl.c: JSON lines, one dict a row; and a whole file of JSON. Errors name line and column.
 * May use: packbuf.h, tags, messages. Must not know: what becomes of the rows. */
#include "tool.h"

/* Ends the program: `offset` bytes into the line that starts at `start`. Columns count characters. */
static void fail_at(const char *file, uint64_t line, const char *start, uint64_t offset, const char *what,
                    const char *where) {
  uint64_t column = 1, i;
  if (offset == PACKBUF_NOWHERE)
    fail(file, "line %llu: %s%s%s", (unsigned long long)line, what, *where ? " at " : "", where);
  for (i = 0; i < offset; i++) column += ((unsigned char)start[i] & 0xc0) != 0x80;
  fail(file, "line %llu, column %llu: %s", (unsigned long long)line, (unsigned long long)column, what);
}

/* The parser's error, whose offset is in `start`, over as many lines as there are before it. */
static void fail_parse(const char *file, uint64_t line, const char *start, uint64_t size, const packbuf_error *error) {
  char what[256];
  uint64_t offset = error->offset, i, begin = 0;
  if (offset != PACKBUF_NOWHERE && offset > size) offset = size;
  for (i = 0; offset != PACKBUF_NOWHERE && i < offset; i++)
    if (start[i] == '\n') {
      line++;
      begin = i + 1;
    }
  snprintf(what, sizeof what, "%s: %s", packbuf_status_name(error->code),
           error->message ? error->message : packbuf_status_text(error->code));
  fail_at(file, line, start + begin, offset == PACKBUF_NOWHERE ? offset : offset - begin, what, "");
}

static int blank(const char *line, size_t size) {
  size_t i;
  for (i = 0; i < size; i++)
    if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return 0;
  return 1;
}

static void parse_tagged(const char *file, uint64_t line, const char *start, size_t size, tag_context *context,
                         packbuf_value *value) {
  packbuf_error error;
  packbuf_value plain;
  if (packbuf_json_parse(start, size, 0, context->arena, &plain, &error)) fail_parse(file, line, start, size, &error);
  if (!read_tags(context, &plain, value))
    fail_at(file, line, start, PACKBUF_NOWHERE, context->problem,
            context->problem_path[0] == '.' ? context->problem_path + 1 : context->problem_path);
}

static size_t after_mark(const source *from) {
  return from->size >= 3 && memcmp(from->data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

void jsonl_read(const source *from, tag_context *context, jsonl *to) {
  const char *all = (const char *)from->data, *file = from->name;
  size_t at = after_mark(from), size = (size_t)from->size;
  uint64_t line = 0, capacity = 0;
  memset(to, 0, sizeof *to);
  to->file = file;
  while (at < size) {
    const char *start = all + at, *end = (const char *)memchr(start, '\n', size - at);
    size_t length = end ? (size_t)(end - start) : size - at;
    line++;
    at += length + (end ? 1 : 0);
    if (blank(start, length)) continue;
    if (to->count == capacity) {
      capacity = capacity ? capacity * 2 : 64;
      if (capacity > SIZE_MAX / sizeof *to->rows) fail_memory();
      to->rows = (packbuf_value *)must_resize(to->rows, (size_t)capacity * sizeof *to->rows);
      to->lines = (uint64_t *)must_resize(to->lines, (size_t)capacity * sizeof *to->lines);
    }
    parse_tagged(file, line, start, length, context, &to->rows[to->count]);
    if (to->rows[to->count].kind != PACKBUF_DICT)
      fail(file, "line %llu: a row is a JSON object with one key a field", (unsigned long long)line);
    to->lines[to->count++] = line;
    progress("reading", at, size);
  }
}

void json_read(const source *from, tag_context *context, packbuf_value *value) {
  size_t skip = after_mark(from);
  parse_tagged(from->name, 1, (const char *)from->data + skip, (size_t)from->size - skip, context, value);
}
