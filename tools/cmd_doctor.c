/* tools/cmd_doctor.c: `packbuf doctor`: what stores find wanting on this machine, a line each: what, what was found,
 * what to do. Changes nothing.
 * May use: packbuf_transport.h (the public part alone). Must not know: what is looked at. */
#include "stores.h"

typedef struct found {
  text out;
  int problems, json;
} found;

static const char *severity_word(packbuf_severity severity) {
  return severity == PACKBUF_FINE ? "fine" : severity == PACKBUF_ADVICE ? "advice" : "PROBLEM";
}

static void member(text *to, const char *name, const char *string) {
  text_printf(to, ",\"%s\":", name);
  print_string(to, string, strlen(string));
}

/* Names of files and devices come from the machine: neither they nor an address break a line. */
static void shown(text *to, const char *string) {
  char line[1024];
  show_text(string, strlen(string), line, sizeof line);
  text_puts(to, line);
}

static void take(void *context, packbuf_severity severity, const char *what, const char *was, const char *advice) {
  found *all = (found *)context;
  text *to = &all->out;
  if (severity == PACKBUF_PROBLEM) all->problems = 1;
  if (all->json) {
    text_printf(to, "{\"severity\":\"%s\"", severity == PACKBUF_PROBLEM ? "problem" : severity_word(severity));
    member(to, "what", what);
    member(to, "found", was);
    member(to, "advice", advice);
    text_puts(to, "}\n");
    return;
  }
  text_printf(to, "%-7s  ", severity_word(severity));
  shown(to, what);
  text_puts(to, ": ");
  shown(to, was);
  if (*advice) {
    text_puts(to, ": ");
    shown(to, advice);
  }
  text_puts(to, "\n");
}

int run_doctor(const verb *command, int argc, char **argv) {
  found all;
  const char *timeout = NULL, *uri;
  strings rest = {NULL, 0};
  const option options[] = {
      {0, "json", &all.json, NULL, NULL}, {0, "timeout", NULL, &timeout, NULL}, {0, NULL, NULL, NULL, NULL}};
  packbuf_error error;
  output out;
  memset(&all, 0, sizeof all);
  parse_options(command, argc, argv, options, &rest);
  if (rest.count > 1) fail_usage(command, "one URI at most");
  uri = rest.count ? rest.items[0] : NULL;
  if (packbuf_doctor(uri, take, &all, packbuf_deadline_in(timeout ? parse_number(command, "timeout", timeout) : 5000),
                     &error)) {
    char line[1024];
    packbuf_error_format(&error, line, sizeof line);
    fail_usage(command, "%s: %s", uri ? uri : "", line);
  }
  output_open(&out, "-");
  out.buffer = all.out;
  output_flush(&out);
  output_close(&out);
  return all.problems ? TOOL_NO : TOOL_OK;
}
