/* core/status.c: names and texts of statuses and rules, and an error as one line.
 * May use: core/status.h, core/base.c. Must not know: who fails, or where. */

PACKBUF_API const char *packbuf_status_name(packbuf_status status) {
  switch (status) {
#define PACKBUF_I_X(name, number, text) \
  case PACKBUF_##name: return #name;
    PACKBUF_STATUS_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
    default: return "?";
  }
}

PACKBUF_API const char *packbuf_status_text(packbuf_status status) {
  switch (status) {
#define PACKBUF_I_X(name, number, text) \
  case PACKBUF_##name: return text;
    PACKBUF_STATUS_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
    default: return "?";
  }
}

PACKBUF_API const char *packbuf_rule_name(packbuf_rule rule) {
  switch (rule) {
#define PACKBUF_I_X(id, number, status, text, at) \
  case PACKBUF_RULE_##id: return #id;
    PACKBUF_RULE_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
    default: return "?";
  }
}

PACKBUF_API const char *packbuf_rule_text(packbuf_rule rule) {
  switch (rule) {
#define PACKBUF_I_X(id, number, status, text, at) \
  case PACKBUF_RULE_##id: return text;
    PACKBUF_RULE_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
    default: return "?";
  }
}

/* One line being written: what does not fit is only counted. */
typedef struct packbuf_i_line {
  char *text;
  size_t size, length;
} packbuf_i_line;

static void packbuf_i_line_text(packbuf_i_line *line, const char *text) {
  for (; *text; text++, line->length++)
    if (line->size && line->length < line->size - 1) line->text[line->length] = *text;
}

static void packbuf_i_line_number(packbuf_i_line *line, uint64_t number) {
  char digits[24];
  size_t at = sizeof digits - 1;
  digits[at] = 0;
  do digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  packbuf_i_line_text(line, digits + at);
}

PACKBUF_API size_t packbuf_error_format(const packbuf_error *error, char *text, size_t size) {
  packbuf_i_line line;
  const char *before = " ";
  line.text = text;
  line.size = text ? size : 0;
  line.length = 0;
  packbuf_i_line_text(&line, packbuf_status_name(error->code));
  if (error->rule != PACKBUF_RULE_NONE) {
    packbuf_i_line_text(&line, " (");
    packbuf_i_line_text(&line, packbuf_rule_name(error->rule));
    packbuf_i_line_text(&line, ")");
  }
  if (error->offset != PACKBUF_NOWHERE) {
    const int code = error->code == PACKBUF_SYSTEM || error->code == PACKBUF_DISCONNECTED; /* an errno, no place */
    packbuf_i_line_text(&line, code ? " (error " : " at byte ");
    packbuf_i_line_number(&line, error->offset);
    if (code) packbuf_i_line_text(&line, ")");
    before = code ? " " : ", ";
  }
  if (error->path[0]) {
    packbuf_i_line_text(&line, before);
    packbuf_i_line_text(&line, "field ");
    packbuf_i_line_text(&line, error->path);
    before = ", ";
  }
  if (error->row != PACKBUF_NOWHERE) {
    packbuf_i_line_text(&line, before);
    packbuf_i_line_text(&line, "row ");
    packbuf_i_line_number(&line, error->row);
    before = ", ";
  }
  if (error->fragment != PACKBUF_NOWHERE) {
    packbuf_i_line_text(&line, before);
    packbuf_i_line_text(&line, "fragment ");
    packbuf_i_line_number(&line, error->fragment);
    before = ", ";
  }
  if (error->needed != PACKBUF_NOWHERE) {
    packbuf_i_line_text(&line, before);
    packbuf_i_line_text(&line, "needs ");
    packbuf_i_line_number(&line, error->needed);
    packbuf_i_line_text(&line, " bytes");
  }
  packbuf_i_line_text(&line, ": ");
  if (error->rule != PACKBUF_RULE_NONE) {
    packbuf_i_line_text(&line, packbuf_status_text(error->code));
    packbuf_i_line_text(&line, " (the rule: ");
  }
  packbuf_i_line_text(&line, error->message ? error->message : packbuf_status_text(error->code));
  if (error->rule != PACKBUF_RULE_NONE) packbuf_i_line_text(&line, ")");
  if (error->expected[0] || error->found[0]) {
    packbuf_i_line_text(&line, error->expected[0] ? " (expected " : " (");
    packbuf_i_line_text(&line, error->expected);
    packbuf_i_line_text(&line, error->expected[0] && error->found[0] ? ", " : "");
    packbuf_i_line_text(&line, error->found[0] ? "found " : "");
    packbuf_i_line_text(&line, error->found);
    packbuf_i_line_text(&line, ")");
  }
  if (line.size) line.text[line.length < line.size ? line.length : line.size - 1] = 0;
  return line.length;
}

/* Sets error->path; what is too long loses its front, at the start of a character, for "...". */
static void packbuf_i_set_path(packbuf_error *error, const char *path, size_t size) {
  size_t keep = PACKBUF_ERROR_PATH - 1, from;
  if (!error) return;
  if (size <= keep) {
    if (size) memcpy(error->path, path, size);
    error->path[size] = 0;
    return;
  }
  for (from = size - (keep - 3); from < size && ((unsigned char)path[from] & 0xC0) == 0x80;) from++;
  memcpy(error->path, "...", 3);
  memcpy(error->path + 3, path + from, size - from);
  error->path[3 + size - from] = 0;
}
