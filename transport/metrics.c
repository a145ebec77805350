/* transport/metrics.c: not written yet. */
static void packbuf_i_metrics_feed(packbuf_server *server, packbuf_i_link *link, const uint8_t *bytes, size_t size) {
  (void)server;
  (void)bytes;
  (void)size;
  link->dead = 1;
}
