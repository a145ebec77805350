/* tools/cmd_serve.c: `packbuf serve`: one store for many machines, until a signal ends it.
 * May use: packbuf_transport.h (the public part alone). Must not know: the protocol. */
#include "stores.h"

#include <signal.h>

static void log_line(void *context, packbuf_log_level level, const char *line) {
  const int *verbose = (const int *)context;
  if (*verbose || level == PACKBUF_LOG_WARNING) say(NULL, "%s", line);
}

/* The signals that end it. They are blocked from here on, in the threads of the server too, so that one waits for them
 * and nothing is interrupted. SIGHUP that is ignored stays so (nohup). */
static void block_signals(sigset_t *ends) {
  struct sigaction hangup;
  sigemptyset(ends);
  sigaddset(ends, SIGINT);
  sigaddset(ends, SIGTERM);
  if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(ends, SIGHUP);
  sigprocmask(SIG_BLOCK, ends, NULL);
}

static void print_uri(const packbuf_server *server) {
  output out;
  output_open(&out, "-");
  text_printf(&out.buffer, "%s\n", packbuf_server_uri(server));
  output_flush(&out);
  output_close(&out);
}

static void fail_open(const verb *command, const char *uri, packbuf_status status, packbuf_error *error) {
  char line[1024];
  if (status != PACKBUF_INVALID_ARGUMENT) fail_call(uri, error);
  packbuf_error_format(error, line, sizeof line);
  fail_usage(command, "%s: %s", uri, line);
}

int run_serve(const verb *command, int argc, char **argv) {
  const char *uri = "local:", *size = NULL, *metrics = NULL, *device = NULL;
  int verbose = 0, number;
  strings rest = {NULL, 0};
  const option options[] = {{0, "store", NULL, &uri, NULL},         {0, "size", NULL, &size, NULL},
                            {0, "metrics", NULL, &metrics, NULL},   {0, "device", NULL, &device, NULL},
                            {'v', "verbose", &verbose, NULL, NULL}, {0, NULL, NULL, NULL, NULL}};
  packbuf_store_options how = packbuf_default_store_options();
  packbuf_server_options serving;
  packbuf_server *server = NULL;
  packbuf_store *store = NULL;
  packbuf_status status;
  packbuf_error error;
  sigset_t ends;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one URI to serve at is needed, such as tcp://127.0.0.1:0");
  if (strncmp(uri, "local:", 6) != 0 && strncmp(uri, "shm:", 4) != 0)
    fail_usage(command, "--store is local: or shm:NAME, not %s", uri);
  if (size) how.size = parse_size(command, "size", size);
  how.log = log_line;
  how.log_context = &verbose;
  memset(&serving, 0, sizeof serving);
  serving.metrics = metrics;
  serving.device = device;
  serving.log = log_line;
  serving.log_context = &verbose;
  block_signals(&ends);
  status = packbuf_store_open(uri, &how, &store, &error);
  if (status) fail_open(command, uri, status, &error);
  status = packbuf_server_open(store, rest.items[0], &serving, &server, &error);
  if (status) {
    (void)packbuf_store_close(store, packbuf_deadline_in(5000), NULL);
    fail_open(command, rest.items[0], status, &error);
  }
  print_uri(server);
  while (sigwait(&ends, &number) != 0) continue;
  if (packbuf_server_close(server, packbuf_deadline_in(5000), &error)) fail_status(rest.items[0], &error);
  if (packbuf_store_close(store, packbuf_deadline_in(5000), &error)) fail_status(uri, &error);
  strings_free(&rest);
  return TOOL_OK;
}
