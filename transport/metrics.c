/* transport/metrics.c: a server's counters for Prometheus: GET /metrics over HTTP/1.0, and nothing else of HTTP.
 * May use: server, counters. Must not know: the protocol of stores. */

#if defined(__linux__)

enum { PACKBUF_I_METRICS_REQUEST = 4096, PACKBUF_I_METRICS_TEXT = 32768 };

static void packbuf_i_metrics_say(packbuf_i_link *link, const char *text) {
  packbuf_i_link_send(link, (const uint8_t *)text, strlen(text));
}

static void packbuf_i_metrics_answer(packbuf_server *server, packbuf_i_link *link) {
  static const char wanted[] = "GET /metrics";
  const packbuf_allocator *heap = &server->service.allocator;
  const size_t size = sizeof wanted - 1;
  packbuf_counters counters;
  char labels[PACKBUF_MAX_URI + 16] = "server=\"";
  char *text;
  size_t length = 0;
  link->state = PACKBUF_I_LINK_ENDING; /* once it has gone */
  if (link->hello_size <= size || memcmp(link->hello, wanted, size) != 0 ||
      (link->hello[size] != ' ' && link->hello[size] != '\r' && link->hello[size] != '?')) {
    packbuf_i_metrics_say(link, "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return;
  }
  strcat(labels, server->uri); /* no quote and no backslash is in it: it was read as an address */
  strcat(labels, "\"");
  text = (char *)packbuf_i_heap(heap, NULL, 0, PACKBUF_I_METRICS_TEXT);
  if (!text || packbuf_server_counters(server, &counters, NULL) ||
      packbuf_counters_text(&counters, labels, text, PACKBUF_I_METRICS_TEXT, &length, NULL)) {
    packbuf_i_metrics_say(link, "HTTP/1.0 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  } else { /* the end of the connection is the end of the text */
    packbuf_i_metrics_say(link,
                          "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n");
    packbuf_i_link_send(link, (const uint8_t *)text, length);
  }
  (void)packbuf_i_heap(heap, text, text ? PACKBUF_I_METRICS_TEXT : 0, 0);
}

/* Bytes of an HTTP client: its first line is kept, the rest looked at for the empty line that ends it. */
static void packbuf_i_metrics_feed(packbuf_server *server, packbuf_i_link *link, const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size && link->state != PACKBUF_I_LINK_ENDING && !link->dead; i++) {
    if (link->hello_size < sizeof link->hello) link->hello[link->hello_size++] = bytes[i];
    if (++link->welcome_size > PACKBUF_I_METRICS_REQUEST) link->dead = 1;
    if (bytes[i] == '\n' && link->eager) packbuf_i_metrics_answer(server, link);
    if (bytes[i] != '\r') link->eager = bytes[i] == '\n';
  }
}

#endif
