/* transport/store.h: stores: opening one, batches of keys, what to do without waiting, looking after it.
 * May use: time, ref, pool. Must not know: batches of rows, how a store does it. */

typedef struct packbuf_store packbuf_store;

/* What a store can do; what it cannot is UNSUPPORTED_OPERATION, or as said. */
enum {
  PACKBUF_CAN_RANGES = 1,    /* transfers only the ranges asked for; else the whole object, and cuts them out */
  PACKBUF_CAN_NEWEST = 2,    /* generation 0 finds the newest object at any moment; else it may be NOT_FOUND while a put
                                of that key is under way */
  PACKBUF_CAN_SUPERSEDE = 4, /* an old generation is STALE once a put has returned; else later, whole until then */
  PACKBUF_CAN_REMOVE_NOW = 8, /* a removed object is not found from then on, though leases delay its memory; else a
                                 lease of the engine delays the removal itself */
  PACKBUF_CAN_IN_PLACE = 16,  /* leases are the store's own memory: a get copies nothing */
  PACKBUF_CAN_TTL = 32,
  PACKBUF_CAN_EVICT = 64,
  PACKBUF_CAN_QUOTA = 128,
  PACKBUF_CAN_LIST = 256,
  PACKBUF_CAN_OUTLIVE = 512, /* objects outlive the process that put them (mooncake: with ?segment=0, which gives the
                                engine no memory of this process) */
  PACKBUF_CAN_INJECT = 1024  /* packbuf_store_inject */
};

typedef enum packbuf_log_level { PACKBUF_LOG_DEBUG, PACKBUF_LOG_INFO, PACKBUF_LOG_WARNING } packbuf_log_level;
/* One line of text, valid during the call; from any thread, one call at a time for each store. Never in the data path:
 * connections of a server, recoveries, evictions, removals left over. */
typedef void (*packbuf_log)(void *context, packbuf_log_level level, const char *text);

/* Start from packbuf_default_store_options(). */
typedef struct packbuf_store_options {
  uint64_t size;        /* bytes for objects, of local: (0: 256 MiB) and of a shm: that is made by this call; 0: it must
                           exist, so that a misspelt name makes no store */
  uint32_t objects;     /* and the most objects it holds; 0: one for each 16 KiB, 1024 to 65536 */
  uint32_t sessions;    /* shm: and the most handles at a time; 0: 256; at most 512 */
  uint64_t quota;       /* the most bytes that objects put through this handle take at a time; 0: no bound */
  packbuf_pool *pool;   /* tcp, verbs, mooncake: where gets are received and puts are packed; NULL: one of its own */
  uint64_t pool_size;   /* of its own; 0: 256 MiB */
  uint32_t connect_ms;  /* tcp, verbs, mooncake: time to connect, and to connect again; 0: 5000. The host's name is
                           looked up once, when the store is opened, for as long as the system's resolver takes */
  uint32_t connections; /* tcp, verbs: sockets or queue pairs; 0: 2 */
  uint32_t workers;     /* threads for packbuf_submit, at most 64; mooncake: for all calls, at most 16; 0: 1, 4 */
  uint8_t must_exist;   /* shm: 1: NOT_FOUND instead of making it, whatever the size */
  uint8_t read_only;    /* 1: puts and removes are READ_ONLY; shm: data are mapped for reading alone */
  uint8_t step_down;    /* 1: verbs may become tcp when it is not to be had; packbuf_store_info says so */
  uint8_t no_auto_register; /* 1: memory that was not registered is UNREGISTERED, with its address as error->offset;
                               0: it is registered for the call and counted */
  uint8_t huge_pages;       /* as in packbuf_pool_options, of its pool; of shm: ?dir= of a hugetlbfs mount */
  const void *secret; /* NULL: that of the environment: the file PACKBUF_SECRET_FILE, else PACKBUF_SECRET, else none */
  size_t secret_size;
  const char *name;                   /* who this is, in lists of leases; NULL: the program's name */
  const packbuf_store *beside;        /* local: another handle on the same objects; it must outlive this one */
  const packbuf_allocator *allocator; /* must be thread-safe here; NULL: realloc and free */
  packbuf_log log;
  void *log_context;
} packbuf_store_options;

PACKBUF_API packbuf_store_options packbuf_default_store_options(void); /* cannot fail */

/* Opens a store. Options may also stand in the URI: shm:NAME?size=8g&objects=4096, any number, by its name (k,
 * m, g, t: times 1024, ...); shm: also dir=FOLDER (/dev/shm) and mode=OCTAL (600: whose it is; 660: the group's too);
 * verbs: device=; mooncake: host=, metadata=, protocol=, device=, segment=, buffer=. Those of a store that is there
 * already (size, objects, sessions, mode) stay as they are. What was asked for is what runs, or the error says why not.
 * Errors: INVALID_ARGUMENT (URI, unknown option), UNAVAILABLE (no such transport here: the message says what is
 * missing), DISCONNECTED, TIMEOUT, DENIED (secret, rights), FULL (no room for it, or no session left), NOT_FOUND (no
 * such shm: store, and no size or must_exist), UNSUPPORTED_VERSION, PROTOCOL (what is there is no store, or a damaged
 * one), OUT_OF_MEMORY, SYSTEM (errno in error->offset). */
PACKBUF_API packbuf_status packbuf_store_open(const char *uri, const packbuf_store_options *options,
                                              packbuf_store **store, packbuf_error *error);
/* Waits for operations under way, to the deadline. LEASED, and it stays open, while leases, slices or submitted
 * operations are out; TIMEOUT. After fork only the parent may use a handle: in the child all calls are DISCONNECTED,
 * but for this one, which does nothing. One thread, once; none begins a call after it. NULL is fine. */
PACKBUF_API packbuf_status packbuf_store_close(packbuf_store *store, uint64_t deadline, packbuf_error *error);

typedef struct packbuf_store_info {
  const char *transport;                      /* "local", "shm", "tcp", "verbs", "mooncake": what runs */
  const char *stepped_down;                   /* why it is not the one of the URI; NULL */
  char uri[PACKBUF_MAX_URI + 1];              /* without options */
  unsigned capabilities;                      /* PACKBUF_CAN_... */
  uint64_t size, used, objects, most_objects; /* bytes, bytes, objects; UINT64_MAX: not known */
} packbuf_store_info;
/* What it is and can, and how full: of tcp, verbs and mooncake by asking the other side. Errors: DISCONNECTED,
 * TIMEOUT. */
PACKBUF_API packbuf_status packbuf_store_describe(packbuf_store *store, packbuf_store_info *info, uint64_t deadline,
                                                  packbuf_error *error);

/* Registers memory of the caller, once for as many operations as follow; calls nest, overlapping and adjacent ranges
 * are registered as one. It must stay mapped until as many unregister calls were made with the same numbers; the last
 * one unregisters, and returns when no operation uses it. Memory that was unmapped and mapped again is registered anew.
 * Errors: INVALID_ARGUMENT, SYSTEM (errno: memlock limit), OUT_OF_MEMORY; NOT_FOUND (unregister: no such range). */
PACKBUF_API packbuf_status packbuf_register(packbuf_store *store, const void *address, uint64_t size,
                                            packbuf_error *error);
PACKBUF_API packbuf_status packbuf_unregister(packbuf_store *store, const void *address, uint64_t size,
                                              packbuf_error *error);

/* The most bytes that leases and slices of one account of this handle may take at a time, as packbuf_pool_quota: of its
 * pool, and where objects are read in place of the leases themselves. INVALID_ARGUMENT: no such account. */
PACKBUF_API packbuf_status packbuf_store_quota(packbuf_store *store, uint32_t account, uint64_t bytes,
                                               packbuf_error *error);

/* Slices to fill and put without another copy: in the store's own memory where it can (local, shm: within the handle's
 * quota, whatever the account), else of the pool. As packbuf_pool_take otherwise; READ_ONLY. Give them to a put, which
 * takes them over when it succeeds, or back. */
PACKBUF_API packbuf_status packbuf_reserve(packbuf_store *store, uint32_t account, const uint64_t *sizes,
                                           uint64_t count, uint64_t deadline, packbuf_slice *slices,
                                           packbuf_error *error);

/* ---- batches of keys ---- */

enum {
  PACKBUF_PUT_EVICTABLE = 1, /* may be dropped, the least recently read first, when room is wanted. Objects without it
                                stay until they are removed or their time is over */
  PACKBUF_REMOVE_FORCE = 2   /* mooncake: also against a lease of the engine. A get under way elsewhere may then bring
                                bytes that were written since: its trailer shows that often, checksums (the level of
                                packbuf_get_options) show it. For what nobody reads */
};

/* One key of a batch. Asked: set by the caller, never changed. Answered: set by the call. Start from zero. */
typedef struct packbuf_item {
  const char *key;     /* NUL-terminated */
  uint64_t generation; /* get, stat, remove: this one, else STALE or NOT_FOUND; 0: the newest (remove: all) */
  const void *from; /* put: `size` bytes; the first of *slice when that is given. They must not change until it ends */
  uint64_t size;    /* 0 is a size */
  packbuf_slice *slice;        /* put: NULL, or taken over and cleared when the put succeeds */
  const packbuf_ref *about;    /* put: kind, head_length, head_checksum and fingerprint to keep with it; NULL: bytes */
  void *into;                  /* get: where to; NULL: answered with a lease */
  uint64_t capacity;           /* get: bytes at `into`. CAPACITY, and nothing is written, when there are more */
  const packbuf_range *ranges; /* get: these bytes alone, end to end, in this order; NULL: all. OUT_OF_RANGE; LIMIT:
                                  more than 32,768 (tcp, verbs) */
  uint64_t range_count;
  uint32_t flags;
  uint32_t ttl_ms;  /* put: dropped after that; 0: never */
  uint32_t account; /* get: whose quota a lease is charged to */
  /* answered */
  packbuf_status status;
  packbuf_stat stat; /* of the object put, got, looked at or (the newest) removed; get: `size` of it arrived, all of it,
                        or the status says why not */
  uint64_t got;      /* get: bytes of the answer: stat.length, or the sum of the ranges */
  packbuf_lease lease; /* get without `into`: give it back */
} packbuf_item;

/* Runs all items. One status a key: a key that fails does not touch its neighbours, and the caller runs those again
 * that failed and no others. Returns PACKBUF_OK when all did, else the status of the first that did not, with its index
 * in error->row and its key in error->path; statuses of all items are set in any case.
 * put: seen whole or not at all, by anyone. An older object of the key is superseded: whoever names its generation gets
 * STALE; memory under a lease stays until the lease ends. A key twice in one batch: the later item is the newer.
 * TIMEOUT and CANCELLED: not put. DISCONNECTED: put or not put; put it again. Waits for room to the deadline.
 * get: the bytes of one generation, all of them or an error.
 * stat: exists? how large? takes no lease (mooncake: the engine grants one, which delays removals for its time).
 * remove: new readers find nothing from then on; waits to the deadline for leases to end, then LEASED (tcp, verbs: or
 * OK, as a server does not wait for those of others): memory comes back when they do, without another call (without
 * PACKBUF_CAN_REMOVE_NOW: by packbuf_store_collect).
 * Statuses: OK; INVALID_ARGUMENT; NOT_FOUND; STALE; FULL, QUOTA; LEASED; CAPACITY; LIMIT; OUT_OF_RANGE; SHORT_READ;
 * UNREGISTERED; READ_ONLY; DISCONNECTED; TIMEOUT; CANCELLED; DENIED; PROTOCOL; DATA_CHECKSUM (mooncake); OUT_OF_MEMORY;
 * SYSTEM; UNSUPPORTED_OPERATION. */
PACKBUF_API packbuf_status packbuf_batch_put(packbuf_store *store, packbuf_item *items, uint64_t count,
                                             uint64_t deadline, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_batch_get(packbuf_store *store, packbuf_item *items, uint64_t count,
                                             uint64_t deadline, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_batch_stat(packbuf_store *store, packbuf_item *items, uint64_t count,
                                              uint64_t deadline, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_batch_remove(packbuf_store *store, packbuf_item *items, uint64_t count,
                                                uint64_t deadline, packbuf_error *error);

/* ---- without waiting ---- */

typedef enum packbuf_operation {
  PACKBUF_PUT = 1,
  PACKBUF_GET = 2,
  PACKBUF_STAT = 3,
  PACKBUF_REMOVE = 4
} packbuf_operation;

/* Hands a batch of 1 to 2^24 items to the store's workers and returns. Items, and all they point to, are the store's
 * until each item's completion was polled. *ticket: never 0. Errors: INVALID_ARGUMENT, OUT_OF_MEMORY, SYSTEM
 * (threads). */
PACKBUF_API packbuf_status packbuf_submit(packbuf_store *store, packbuf_operation operation, packbuf_item *items,
                                          uint64_t count, uint64_t deadline, void *context, uint64_t *ticket,
                                          packbuf_error *error);

/* One item that ended. item->status says how. */
typedef struct packbuf_completion {
  uint64_t ticket, index; /* items[index] of that submit */
  packbuf_item *item;
  void *context;
  uint64_t left; /* items of the ticket that have not been polled yet; 0: this was the last */
} packbuf_completion;

/* Takes up to `capacity` completions, in the order they ended; waits for the first to the deadline. *count 0 and
 * TIMEOUT when there was none (PACKBUF_NO_WAIT: OK). NOT_FOUND: nothing is submitted. */
PACKBUF_API packbuf_status packbuf_poll(packbuf_store *store, packbuf_completion *completions, uint64_t capacity,
                                        uint64_t *count, uint64_t deadline, packbuf_error *error);
/* Asks for the end of one item (index PACKBUF_NOWHERE: of all). Each still has a completion: CANCELLED, nothing having
 * happened, or what it became before. NOT_FOUND: it was polled already. */
PACKBUF_API packbuf_status packbuf_cancel(packbuf_store *store, uint64_t ticket, uint64_t index, packbuf_error *error);
/* A descriptor that poll and epoll find readable while completions wait. The store's: do not read or close it. */
PACKBUF_API packbuf_status packbuf_store_fd(packbuf_store *store, int *fd, packbuf_error *error);

/* ---- looking after a store ---- */

typedef struct packbuf_listed {
  char key[PACKBUF_MAX_KEY + 1];
  packbuf_stat stat;
} packbuf_listed;

/* Up to `capacity` objects whose keys begin with `prefix` (NULL: all), in no order; *cursor 0 to begin, 0 again when
 * there are no more. Objects that stay during the whole of it are listed once, others may be. UNSUPPORTED_OPERATION
 * without PACKBUF_CAN_LIST. */
PACKBUF_API packbuf_status packbuf_store_list(packbuf_store *store, const char *prefix, uint64_t *cursor,
                                              packbuf_listed *listed, uint64_t capacity, uint64_t *count,
                                              uint64_t deadline, packbuf_error *error);

/* Takes back now what is taken back anyway when room is wanted: objects whose time is over, what processes that died
 * held or were writing; mooncake: tries removals again that leases had delayed, *left (may be NULL) of which remain.
 * Errors: DISCONNECTED, TIMEOUT. */
PACKBUF_API packbuf_status packbuf_store_collect(packbuf_store *store, uint64_t deadline, uint64_t *left,
                                                 packbuf_error *error);

/* One handle on a store of many processes, and what it holds there. Plain data. */
typedef struct packbuf_session {
  char name[48];                 /* options.name of who opened it; what is not printable ASCII is '?' */
  uint32_t number;               /* while it lasts; others come to have it later */
  uint32_t process;              /* as its own PID namespace calls it: for people */
  uint64_t age_ms;               /* since it was opened */
  uint64_t idle_ms;              /* since its last batch began: a lease of it is at least that old */
  uint64_t leases, leased_bytes; /* objects that it holds */
  uint64_t slices, slice_bytes;  /* that it fills, or has reserved */
  uint8_t alive;                 /* 0: its process is gone; packbuf_store_collect takes back what it held */
  uint8_t own;                   /* 1: it is the handle that was asked */
} packbuf_session;

typedef enum packbuf_held_kind {
  PACKBUF_HELD_LEASE = 1,   /* an object that can be got */
  PACKBUF_HELD_REMOVED = 2, /* one that was removed or superseded: its memory comes back with the lease */
  PACKBUF_HELD_SLICE = 3    /* memory that is being filled: no key yet; stat.length is what was reserved */
} packbuf_held_kind;

/* Something that a session holds. */
typedef struct packbuf_held {
  uint32_t session; /* its number */
  packbuf_held_kind kind;
  packbuf_listed object; /* not known: stat.leases of a slice */
} packbuf_held;

/* Who has the store open, and what they hold; cursors as for packbuf_store_list. Of a store that others work in both
 * are a look at things that move. UNSUPPORTED_OPERATION of stores that know no other processes (all but shm). */
PACKBUF_API packbuf_status packbuf_store_sessions(packbuf_store *store, uint64_t *cursor, packbuf_session *sessions,
                                                  uint64_t capacity, uint64_t *count, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_store_held(packbuf_store *store, uint64_t *cursor, packbuf_held *held,
                                              uint64_t capacity, uint64_t *count, packbuf_error *error);

/* Whose each byte is. What is lost is what a store that keeps its own rules never has, whoever was killed when. */
typedef struct packbuf_audit {
  uint64_t objects, object_bytes;               /* that can be got */
  uint64_t removed, removed_bytes;              /* removed or superseded, and not yet taken back */
  uint64_t filling, filling_bytes;              /* slices */
  uint64_t free_bytes, free_runs, largest_free; /* the largest is what can be put without anything going */
  uint64_t dead;                                /* sessions whose process is gone and that were not collected */
  uint64_t lost_bytes;                          /* memory in use for nothing */
  uint64_t shared_bytes;                        /* memory of an object that is not its own */
  uint64_t lost_slots, lost_cells, lost_pins;   /* held by nobody; entries of the directory that name nothing;
                                                   leases of no session */
  uint64_t hidden;                              /* objects that no key leads to */
} packbuf_audit;
/* Counts all of it anew. UNSUPPORTED_OPERATION as above. */
PACKBUF_API packbuf_status packbuf_store_audit(packbuf_store *store, packbuf_audit *audit, packbuf_error *error);

/* Takes the store away, with all that is in it, for everyone: what is leased stays readable until the handle that holds
 * it is closed, every other call on it is DISCONNECTED, and the name may be used for another one. LEASED, and nothing
 * happens, while others have it open, unless `force`. READ_ONLY; UNSUPPORTED_OPERATION as above; SYSTEM. */
PACKBUF_API packbuf_status packbuf_store_free(packbuf_store *store, int force, packbuf_error *error);

/* X(name, gauge, text): counters count from packbuf_store_open on, gauges (1) say what is now. Those of a store as a
 * whole, store_used and store_objects, are 0 in a handle of tcp or verbs: its server has them, packbuf_store_describe
 * asks. */
#define PACKBUF_COUNTER_LIST(X)                                                  \
  X(puts, 0, "objects put")                                                      \
  X(gets, 0, "objects got, or ranges of them")                                   \
  X(removes, 0, "objects removed")                                               \
  X(failures, 0, "items that ended with an error")                               \
  X(bytes_put, 0, "bytes of objects put")                                        \
  X(bytes_got, 0, "bytes that were asked for and arrived")                       \
  X(bytes_moved, 0, "bytes that crossed a wire or were copied, both directions") \
  X(registrations, 0, "memory registrations")                                    \
  X(registered, 1, "bytes registered")                                           \
  X(copies, 0, "puts that had to be copied into registered memory")              \
  X(leases, 1, "leases held through this handle")                                \
  X(oldest_lease_ms, 1, "age of the oldest of them")                             \
  X(slices, 1, "slices out")                                                     \
  X(pool_used, 1, "bytes of the pool that are out")                              \
  X(pool_peak, 1, "the most bytes of the pool that were out")                    \
  X(waits, 0, "times that an operation waited for room")                         \
  X(stale, 0, "items that were stale")                                           \
  X(checksum_failures, 0, "heads or chunks of data whose checksum was wrong")    \
  X(short_reads, 0, "reads that came up short")                                  \
  X(timeouts, 0, "items that ran into their deadline")                           \
  X(reconnects, 0, "connections made anew")                                      \
  X(evicted, 0, "objects dropped for room")                                      \
  X(expired, 0, "objects dropped because their time was over")                   \
  X(recovered, 0, "slots, leases and reservations taken back from the dead")     \
  X(store_used, 1, "bytes of the store in use")                                  \
  X(store_objects, 1, "objects in the store")

typedef struct packbuf_counters {
#define PACKBUF_I_X(name, gauge, text) uint64_t name;
  PACKBUF_COUNTER_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
} packbuf_counters;

PACKBUF_API packbuf_status packbuf_store_counters(packbuf_store *store, packbuf_counters *counters,
                                                  packbuf_error *error);
/* As Prometheus text ("packbuf_puts_total{store="shm:a"} 5" and so on), labels: what to put in the braces (NULL: none).
 * As packbuf_schema_text otherwise. CAPACITY. */
PACKBUF_API packbuf_status packbuf_counters_text(const packbuf_counters *counters, const char *labels, char *text,
                                                 size_t capacity, size_t *size, packbuf_error *error);

typedef enum packbuf_fault_kind {
  PACKBUF_FAULT_FAIL = 1,    /* ends with status `argument` */
  PACKBUF_FAULT_DELAY = 2,   /* takes `argument` ns more */
  PACKBUF_FAULT_SHORTEN = 3, /* a get: only the first `argument` bytes arrive; a put: the writer dies after them */
  PACKBUF_FAULT_CORRUPT = 4, /* the byte at `argument` arrives with all bits flipped */
  PACKBUF_FAULT_REORDER = 5  /* begins only after the next `argument` items of its batch have ended */
} packbuf_fault_kind;
typedef struct packbuf_fault {
  uint64_t at; /* which item, counted from 0 since packbuf_store_inject */
  packbuf_fault_kind kind;
  uint64_t argument;
} packbuf_fault;
/* Plans faults (copied) for the items that follow and counts from 0; count 0: none. UNSUPPORTED_OPERATION without
 * PACKBUF_CAN_INJECT. */
PACKBUF_API packbuf_status packbuf_store_inject(packbuf_store *store, const packbuf_fault *faults, uint64_t count,
                                                packbuf_error *error);

typedef enum packbuf_severity { PACKBUF_FINE, PACKBUF_ADVICE, PACKBUF_PROBLEM } packbuf_severity;
/* One finding: what was looked at ("/dev/shm", "memlock", "rxe0 gid 1"), what was found, what to do. Valid during the
 * call. */
typedef void (*packbuf_finding)(void *context, packbuf_severity severity, const char *what, const char *found,
                                const char *advice);
/* Looks at this machine with the eyes of one store (a URI; NULL: of all): size of /dev/shm, memlock limit, huge pages,
 * devices, ports, GIDs and MTU, whether libraries load, whether the other side takes connections. Opens no store and
 * changes nothing. A name that is looked up may take longer than the deadline. Errors: INVALID_ARGUMENT. */
PACKBUF_API packbuf_status packbuf_doctor(const char *uri, packbuf_finding finding, void *context, uint64_t deadline,
                                          packbuf_error *error);
