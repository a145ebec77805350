/* transport/server.h: one store for many machines.
 * May use: store. */

typedef struct packbuf_server packbuf_server;

typedef struct packbuf_server_options {
  uint32_t threads;     /* event loops; 0: 2 */
  uint32_t connections; /* most at a time; 0: 4096 */
  uint32_t lease_ms;    /* who takes next to nothing of what is sent, or sends next to nothing of what it has room for
                           (32 bytes a millisecond), so long while other clients want room, is cut off; 0: 30000 */
  uint64_t quota;       /* most bytes, in pages, that one client's objects take, until it goes; 0: no bound */
  const void *secret;   /* as in packbuf_store_options. DENIED without one where the address is not loopback */
  size_t secret_size;
  const char *metrics; /* "HOST:PORT" for Prometheus, loopback unless a host is given; NULL: none */
  const char *device;  /* verbs: device[:port[:gid index]]; NULL: the first that is up */
  const packbuf_allocator *allocator;
  packbuf_log log;
  void *log_context;
} packbuf_server_options;

/* Serves a store (local: or shm: alone), which must stay open. URI: tcp://HOST:PORT or verbs://HOST:PORT (which serves
 * tcp clients too); no HOST: loopback; port 0: any. Not encrypted. Errors: those of packbuf_store_open. */
PACKBUF_API packbuf_status packbuf_server_open(packbuf_store *store, const char *uri,
                                               const packbuf_server_options *options, packbuf_server **server,
                                               packbuf_error *error);
/* The URI that clients take, with the port that it has. Valid until it is closed. Cannot fail. */
PACKBUF_API const char *packbuf_server_uri(const packbuf_server *server);
/* What its connections did since it was opened, and how full the store is. Errors: those of packbuf_store_describe. */
PACKBUF_API packbuf_status packbuf_server_counters(packbuf_server *server, packbuf_counters *counters,
                                                   packbuf_error *error);
/* Lets operations under way end, to the deadline, then cuts connections. NULL is fine. */
PACKBUF_API packbuf_status packbuf_server_close(packbuf_server *server, uint64_t deadline, packbuf_error *error);
