/* transport/driver.h: what a store is to the rest, for those who bring their own.
 * May use: store. Must not know: batches of rows. */

/* How a driver is called for one batch. */
typedef struct packbuf_call {
  packbuf_operation operation;
  packbuf_item *items; /* checked: keys, sizes, addresses (registered, where the driver registers) */
  uint64_t count, deadline;
  const struct packbuf_i_holder *holder; /* items[i].slice is memory of this store's own `reserve`, and its token what
                                            that answered, when this is its holder; else memory like any other */
  /* 1 when the caller no longer wants an item: asked before its point of no return. */
  int (*cancelled)(const struct packbuf_call *call, uint64_t index);
  /* Tells, once for each item, that status and answers are filled in; from any thread, until `run` returns. */
  void (*done)(struct packbuf_call *call, uint64_t index);
  void *context;
  void *const *registrations; /* what attach returned for the memory that items[i] names; NULL: it names none, or a
                                 slice's, which is of the pool */
} packbuf_call;

/* What a store that is shared by processes knows of them. */
typedef struct packbuf_keeper {
  packbuf_status (*sessions)(void *state, uint64_t *cursor, packbuf_session *sessions, uint64_t capacity,
                             uint64_t *count, packbuf_error *error);
  packbuf_status (*held)(void *state, uint64_t *cursor, packbuf_held *held, uint64_t capacity, uint64_t *count,
                         packbuf_error *error);
  packbuf_status (*audit)(void *state, packbuf_audit *audit, packbuf_error *error);
  packbuf_status (*take_away)(void *state, int force, packbuf_error *error);
} packbuf_keeper;

/* All memory that a store's slices and leases are of. */
typedef struct packbuf_driver_memory {
  void *writable;       /* slices lie in these bytes */
  const void *readable; /* leases in these: the same memory, perhaps mapped a second time */
  uint64_t size;
} packbuf_driver_memory;

/* A store's own half. Calls come from any number of threads but open and close. open, close, describe, run and let_go
 * there must be; others that are NULL: not supported. A driver passes tests/store_contract.c when it keeps what
 * packbuf_batch_put and its neighbours promise. */
typedef struct packbuf_driver {
  size_t size;        /* sizeof(packbuf_driver): members may be added at the end */
  const char *scheme; /* "shm" */
  packbuf_status (*open)(void **state, const char *uri, const packbuf_store_options *options, packbuf_error *error);
  void (*close)(void *state);
  packbuf_status (*describe)(void *state, packbuf_store_info *info, uint64_t deadline, packbuf_error *error);
  /* Memory that operations will name; NULL: any memory will do. */
  packbuf_status (*attach)(void *state, const void *address, uint64_t size, void **registration, packbuf_error *error);
  void (*detach)(void *state, void *registration);
  /* Memory of the store to fill; NULL: slices come from the pool, and end when a put has. */
  packbuf_status (*reserve)(void *state, const uint64_t *sizes, uint64_t count, uint64_t deadline, void **data,
                            uint64_t *tokens, packbuf_error *error);
  void (*give_back)(void *state, uint64_t token);
  /* Runs a batch to its deadline; every item is `done` when it returns. */
  void (*run)(void *state, packbuf_call *call);
  /* Ends a lease that a get answered with (lease.token). */
  void (*let_go)(void *state, uint64_t token);
  packbuf_status (*list)(void *state, const char *prefix, uint64_t *cursor, packbuf_listed *listed, uint64_t capacity,
                         uint64_t *count, uint64_t deadline, packbuf_error *error);
  packbuf_status (*collect)(void *state, uint64_t deadline, uint64_t *left, packbuf_error *error);
  void (*count)(void *state, packbuf_counters *counters); /* adds what it alone knows */
  packbuf_status (*inject)(void *state, const packbuf_fault *faults, uint64_t count, packbuf_error *error);
  /* Where it all lies, for a server that lets an RDMA device use it; NULL: nowhere in particular. */
  packbuf_status (*memory)(void *state, packbuf_driver_memory *memory, packbuf_error *error);
  uint64_t unattached; /* bytes up to which an operation needs no attached memory after all */
  const packbuf_keeper *keeper; /* NULL: it knows of no other processes */
} packbuf_driver;

/* packbuf_store_open with a driver of the caller's, which is copied. */
PACKBUF_API packbuf_status packbuf_store_open_driver(const packbuf_driver *driver, const char *uri,
                                                     const packbuf_store_options *options, packbuf_store **store,
                                                     packbuf_error *error);
