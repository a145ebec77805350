/* tools/cmd_verify.c: `packbuf verify`: checks packed buffers; one line each.
 * May use: packbuf.h. Must not know: what the rules are. */
#include "tool.h"

/* 1 when the file is valid up to the level; else the reason has been said. */
static int verify_one(const verb *command, const char *name, packbuf_level level, const char *decoded) {
  packbuf_limits limits = packbuf_default_limits();
  packbuf_error error;
  packbuf_view view;
  source from;
  char line[1024];
  int bad;
  if (decoded) limits.decoded_bytes = parse_number(command, "decoded-bytes", decoded);
  source_open(&from, name);
  progress("verifying", 0, 0);
  bad = packbuf_open(&view, from.data, from.size, PACKBUF_OPEN_EXACT, &limits, &error) != PACKBUF_OK ||
        packbuf_verify(&view, level, &error) != PACKBUF_OK;
  if (bad) {
    packbuf_error_format(&error, line, sizeof line);
    say(name, "%s", line);
  }
  source_close(&from);
  progress_end();
  return !bad;
}

int run_verify(const verb *command, int argc, char **argv) {
  static const char *const levels[] = {"head", "index", "full"};
  const char *word = "full", *decoded = NULL;
  int quiet = 0, result = TOOL_OK;
  strings rest = {NULL, 0};
  const option options[] = {{0, "level", NULL, &word, NULL},
                            {'q', "quiet", &quiet, NULL, NULL},
                            {0, "decoded-bytes", NULL, &decoded, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  output out;
  size_t i, level;
  parse_options(command, argc, argv, options, &rest);
  if (!rest.count) fail_usage(command, "a FILE.pbuf is needed");
  for (level = 0; level < 3 && strcmp(levels[level], word) != 0;) level++;
  if (level == 3) fail_usage(command, "--level is head, index or full, not %s", word);
  output_open(&out, "-");
  for (i = 0; i < rest.count; i++) {
    if (!verify_one(command, rest.items[i], (packbuf_level)level, decoded)) result = TOOL_NO;
    else if (!quiet)
      text_printf(&out.buffer, "%s: ok (%s)\n", strcmp(rest.items[i], "-") == 0 ? "stdin" : rest.items[i], word);
    output_flush(&out);
  }
  output_close(&out);
  strings_free(&rest);
  return result;
}
