/* tools/cmd_schema.c: `packbuf schema`: which columns a packed buffer has, as text and as a fingerprint; and whether
 * they are those that are expected.
 * May use: packbuf.h. Must not know: how the text is made. */
#include "tool.h"

static void schema_text(const packbuf_view *view, const char *file, text *to) {
  packbuf_error error;
  size_t size = 0;
  if (packbuf_schema_text(view, NULL, 0, &size, &error)) fail_status(file, &error);
  if (packbuf_schema_text(view, text_room(to, size), size, &size, &error)) fail_status(file, &error);
  to->size += size;
}

static void hex_fingerprint(const uint8_t *fingerprint, char *to) {
  int i;
  for (i = 0; i < PACKBUF_FINGERPRINT; i++) snprintf(to + 2 * i, 3, "%02x", (unsigned)fingerprint[i]);
}

/* 32 hexadecimal digits; 0 when it is something else. */
static int parse_fingerprint(const char *word, uint8_t *fingerprint) {
  static const char digits[] = "0123456789abcdef";
  int i;
  if (strlen(word) != 2 * PACKBUF_FINGERPRINT) return 0;
  for (i = 0; i < 2 * PACKBUF_FINGERPRINT; i++) {
    const char *digit = strchr(digits, word[i] >= 'A' && word[i] <= 'F' ? word[i] - 'A' + 'a' : word[i]);
    if (!digit) return 0;
    fingerprint[i / 2] = (uint8_t)(fingerprint[i / 2] << 4 | (digit - digits));
  }
  return 1;
}

/* The schema text of a file: a packed buffer, or the text itself (with or without the fingerprint that `packbuf schema`
 * prints after it). */
static void load_expected(const verb *command, const char *name, text *to) {
  static const char magic[] = "\x89PBUF";
  source from;
  packbuf_view view;
  source_open(&from, name);
  if (from.size >= 5 && memcmp(from.data, magic, 5) == 0) {
    source_close(&from);
    open_packed(command, &from, &view, name, NULL);
    schema_text(&view, name, to);
  } else {
    text_add(to, (const char *)from.data, (size_t)from.size);
    if (to->size > 33 && to->data[to->size - 1] == '\n' && to->data[to->size - 34] == '\n' &&
        to->data[to->size - 33] != '{')
      to->size -= 33;
    if (from.size < 18 || memcmp(from.data, "{\"packbuf_schema\":", 18) != 0)
      fail(name, "neither a packed buffer nor a schema text");
  }
  source_close(&from);
}

/* Says what differs, in one line. */
static void say_drift(const packbuf_view *view, const char *file, const packbuf_error *error,
                      const packbuf_drift *drift) {
  char line[512], there[2048];
  packbuf_error brief = *error;
  size_t size = 0;
  if (drift->expected.size && drift->node != PACKBUF_NO_NODE) brief.expected[0] = brief.found[0] = 0;
  packbuf_error_format(&brief, line, sizeof line);
  if (drift->node != PACKBUF_NO_NODE) packbuf_schema_line(view, drift->node, there, sizeof there, &size, NULL);
  if (size > sizeof there) size = sizeof there;
  if (drift->expected.size && drift->node != PACKBUF_NO_NODE)
    say(file, "%s; expected %.*s, found %.*s", line, (int)(drift->expected.size < 2048 ? drift->expected.size : 2048),
        drift->expected.data, (int)size, there);
  else
    say(file, "%s", line);
}

static int compare_with(const verb *command, const packbuf_view *view, const char *file, const char *expect) {
  uint8_t fingerprint[PACKBUF_FINGERPRINT] = {0};
  packbuf_drift drift = {{NULL, 0}, PACKBUF_NO_NODE};
  packbuf_error error;
  packbuf_status status;
  text expected = {NULL, 0, 0};
  if (parse_fingerprint(expect, fingerprint)) {
    status = packbuf_expect_fingerprint(view, fingerprint, &error);
  } else {
    load_expected(command, expect, &expected);
    status = packbuf_expect_schema(view, expected.data, expected.size, &drift, &error);
  }
  if (status == PACKBUF_SCHEMA_MISMATCH) say_drift(view, file, &error, &drift);
  else if (status == PACKBUF_INVALID_ARGUMENT) fail_status(expect, &error);
  else if (status) fail_status(file, &error);
  text_free(&expected);
  return status ? TOOL_NO : TOOL_OK;
}

int run_schema(const verb *command, int argc, char **argv) {
  int only = 0, result = TOOL_OK;
  const char *expect = NULL;
  strings rest = {NULL, 0};
  const option options[] = {
      {0, "fingerprint", &only, NULL, NULL}, {0, "expect", NULL, &expect, NULL}, {0, NULL, NULL, NULL, NULL}};
  uint8_t fingerprint[PACKBUF_FINGERPRINT];
  char hex[2 * PACKBUF_FINGERPRINT + 1];
  packbuf_error error;
  packbuf_view view;
  source from;
  output out;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one FILE.pbuf is needed");
  open_packed(command, &from, &view, rest.items[0], NULL);
  output_open(&out, "-");
  if (expect) {
    result = compare_with(command, &view, from.name, expect);
  } else {
    if (packbuf_fingerprint(&view, fingerprint, &error)) fail_status(from.name, &error);
    hex_fingerprint(fingerprint, hex);
    if (!only) schema_text(&view, from.name, &out.buffer);
    text_printf(&out.buffer, "%s\n", hex);
  }
  output_close(&out);
  source_close(&from);
  strings_free(&rest);
  return result;
}
