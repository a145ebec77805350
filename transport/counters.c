/* transport/counters.c: counters as text, in the exposition format of Prometheus.
 * May use: text. Must not know: who counts. */

/* One counter: its description, its type, its number. */
static void packbuf_i_counter_lines(packbuf_i_line *line, const char *name, int gauge, const char *about,
                                    const char *labels, uint64_t number) {
  static const char *const begin[3] = {"# HELP packbuf_", "# TYPE packbuf_", "packbuf_"};
  for (int i = 0; i < 3; i++) {
    packbuf_i_line_text(line, begin[i]);
    packbuf_i_line_text(line, name);
    if (!gauge) packbuf_i_line_text(line, "_total");
    if (i == 2 && labels && labels[0]) {
      packbuf_i_line_character(line, '{');
      packbuf_i_line_text(line, labels);
      packbuf_i_line_character(line, '}');
    }
    packbuf_i_line_character(line, ' ');
    if (i == 0) packbuf_i_line_text(line, about);
    else if (i == 1) packbuf_i_line_text(line, gauge ? "gauge" : "counter");
    else packbuf_i_line_number(line, number);
    packbuf_i_line_character(line, '\n');
  }
}

PACKBUF_API packbuf_status packbuf_counters_text(const packbuf_counters *counters, const char *labels, char *text,
                                                 size_t capacity, size_t *size, packbuf_error *error) {
  /* no NUL is written, so all `capacity` bytes are for text */
  packbuf_i_line line = packbuf_i_line_in(text, capacity < SIZE_MAX ? capacity + 1 : capacity);
  if (!counters || !size)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "counters and size must be given");
#define PACKBUF_I_X(name, gauge, about) packbuf_i_counter_lines(&line, #name, gauge, about, labels, counters->name);
  PACKBUF_COUNTER_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
  *size = line.length;
  if (text && line.length > capacity)
    return packbuf_i_too_small(error, "no room for the text of the counters", PACKBUF_NOWHERE, line.length);
  return PACKBUF_OK;
}
