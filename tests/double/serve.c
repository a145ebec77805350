/* tests/double/serve.c: a server for tests of stores: `serve URI` serves a new `local` store of 64 MiB and 4096
 * objects, prints the URI that clients take, and ends with its standard input. */
#include "../../transport/packbuf_transport.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_server_options serving;
  packbuf_store *store = NULL;
  packbuf_server *server = NULL;
  packbuf_error error;
  char line[512];
  memset(&serving, 0, sizeof serving);
  serving.lease_ms = 1000;
  options.size = (uint64_t)64 << 20;
  options.objects = 4096;
  if (argc != 2 || packbuf_store_open("local:", &options, &store, &error) ||
      packbuf_server_open(store, argv[1], &serving, &server, &error)) {
    (void)packbuf_error_format(&error, line, sizeof line);
    fprintf(stderr, "serve: %s\n", argc == 2 ? line : "one URI");
    return 1;
  }
  printf("%s\n", packbuf_server_uri(server));
  fflush(stdout);
  while (read(0, line, sizeof line) > 0) continue;
  if (packbuf_server_close(server, packbuf_deadline_in(5000), &error) ||
      packbuf_store_close(store, packbuf_deadline_in(5000), &error)) {
    (void)packbuf_error_format(&error, line, sizeof line);
    fprintf(stderr, "serve: %s\n", line);
    return 1;
  }
  return 0;
}
