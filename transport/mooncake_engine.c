/* transport/mooncake_engine.c: Mooncake's engine as the store `mooncake` calls it: its C ABI, loaded at run time, what
 * its codes mean, and the worker threads that make its calls. The ABI has no deadlines: so calls are made on memory
 * that is the driver's for as long as they last, and a caller leaves at its own deadline while the call ends behind it.
 * May use: system, pool, driver.h. Must not know: what a call is made for (mooncake_items.c), callers' memory. */
#include <dlfcn.h>

/* ---- the engine's C ABI ---- */

typedef struct packbuf_i_mooncake_config {
  size_t replicas; /* 0 is refused */
  int soft_pin, hard_pin;
  const char **segments;
  size_t segment_count;
} packbuf_i_mooncake_config;

/* In the order of packbuf_i_mooncake_names. */
typedef struct packbuf_i_mooncake_api {
  void *(*create)(void);
  void (*destroy)(void *client);
  int (*setup)(void *client, const char *host, const char *metadata, uint64_t segment, uint64_t buffer,
               const char *protocol, const char *device, const char *master);
  int (*init_all)(void *client, const char *protocol, const char *device, uint64_t segment);
  int (*health_check)(void *client);
  int (*put)(void *client, const char *key, const void *value, size_t size, const packbuf_i_mooncake_config *config);
  int (*put_from)(void *client, const char *key, void *buffer, size_t size, const packbuf_i_mooncake_config *config);
  int (*batch_put_from)(void *client, const char **keys, void **buffers, const size_t *sizes, size_t count,
                        const packbuf_i_mooncake_config *config, int *results);
  int64_t (*get_into)(void *client, const char *key, void *buffer, size_t capacity);
  int (*batch_get_into)(void *client, const char **keys, void **buffers, const size_t *sizes, size_t count,
                        int64_t *results);
  int (*is_exist)(void *client, const char *key);
  int (*batch_is_exist)(void *client, const char **keys, size_t count, int *results);
  int64_t (*get_size)(void *client, const char *key);
  int (*get_hostname)(void *client, char *name, size_t size);
  int (*remove)(void *client, const char *key, int force);
  int64_t (*remove_by_regex)(void *client, const char *pattern, int force);
  int64_t (*remove_all)(void *client, int force);
  int (*register_buffer)(void *client, void *buffer, size_t size);
  int (*unregister_buffer)(void *client, void *buffer);
} packbuf_i_mooncake_api;

#define PACKBUF_I_MOONCAKE_FUNCTIONS 19
typedef char packbuf_i_mooncake_api_is_pointers
    [sizeof(packbuf_i_mooncake_api) == PACKBUF_I_MOONCAKE_FUNCTIONS * sizeof(void *) ? 1 : -1];

static const char *const packbuf_i_mooncake_names[PACKBUF_I_MOONCAKE_FUNCTIONS] = {
    "mooncake_store_create",           "mooncake_store_destroy",        "mooncake_store_setup",
    "mooncake_store_init_all",         "mooncake_store_health_check",   "mooncake_store_put",
    "mooncake_store_put_from",         "mooncake_store_batch_put_from", "mooncake_store_get_into",
    "mooncake_store_batch_get_into",   "mooncake_store_is_exist",       "mooncake_store_batch_is_exist",
    "mooncake_store_get_size",         "mooncake_store_get_hostname",   "mooncake_store_remove",
    "mooncake_store_remove_by_regex",  "mooncake_store_remove_all",     "mooncake_store_register_buffer",
    "mooncake_store_unregister_buffer"};

/* Loads the library and finds all functions, or says which is missing. Once a client was made, the library stays:
 * engines have threads and destructors of their own, which outlive what we see of them. */
static packbuf_status packbuf_i_mooncake_load(packbuf_i_mooncake_api *api, packbuf_error *error) {
  const char *named = getenv("MOONCAKE_STORE_LIBRARY");
  const char *const file = named && *named ? named : "libmooncake_store.so";
  void *const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!library)
    return packbuf_i_item_fail(error, PACKBUF_UNAVAILABLE,
                               "Mooncake's library cannot be loaded (MOONCAKE_STORE_LIBRARY names another)", file,
                               PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  for (size_t i = 0; i < PACKBUF_I_MOONCAKE_FUNCTIONS; i++) {
    void *const function = dlsym(library, packbuf_i_mooncake_names[i]);
    if (!function) {
      (void)dlclose(library);
      return packbuf_i_item_fail(error, PACKBUF_UNAVAILABLE, "Mooncake's library lacks a function",
                                 packbuf_i_mooncake_names[i], PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    }
    memcpy((uint8_t *)api + i * sizeof function, &function, sizeof function);
  }
  return PACKBUF_OK;
}

/* What a code of the engine means here. */
static packbuf_status packbuf_i_mooncake_status(int64_t code) {
  if (code >= 0) return PACKBUF_OK;
  switch (code) {
    case -200: return PACKBUF_FULL;
    case -600: return PACKBUF_UNREGISTERED; /* names, sizes and the config are ours, and right */
    case -703:                              /* another's put has not ended */
    case -704: return PACKBUF_NOT_FOUND;
    case -706:
    case -708:
    case -714: return PACKBUF_LEASED;
    case -707: return PACKBUF_SHORT_READ;
    case -800:
    case -900: return PACKBUF_DISCONNECTED;
    case -801: return PACKBUF_DATA_CHECKSUM;
    case -901: return PACKBUF_TIMEOUT;
    default: return PACKBUF_SYSTEM;
  }
}

/* ---- the state ---- */

#define PACKBUF_I_MOONCAKE_WINDOW 64u   /* items under way at a time for one call */
#define PACKBUF_I_MOONCAKE_WORKERS 16u  /* at most */
#define PACKBUF_I_MOONCAKE_CHAINS 1024u /* of notes */
#define PACKBUF_I_MOONCAKE_KEPT 64u     /* notes of the newest kept in a chain */
#define PACKBUF_I_MOONCAKE_SCRATCH ((size_t)4096 * PACKBUF_I_MOONCAKE_WORKERS)
#define PACKBUF_I_MOONCAKE_NAME (PACKBUF_MAX_KEY + 18) /* KEY@ + 16 digits + NUL */
#define PACKBUF_I_MOONCAKE_RECORD 64u /* what lies behind an object, and in a pointer */

typedef struct packbuf_i_mooncake_record {
  uint64_t generation, length, head_length;
  uint32_t head_checksum, flags;
  uint8_t kind, fingerprint[PACKBUF_FINGERPRINT];
} packbuf_i_mooncake_record;

/* What is remembered of a key. NEWEST: the last put of this handle. The others are removals that have not happened yet:
 * asked for; because of a newer object; and of puts that ended too late to be puts. */
typedef enum packbuf_i_mooncake_why {
  PACKBUF_I_MOONCAKE_NEWEST,
  PACKBUF_I_MOONCAKE_REMOVED,
  PACKBUF_I_MOONCAKE_SUPERSEDED,
  PACKBUF_I_MOONCAKE_LATE
} packbuf_i_mooncake_why;

typedef struct packbuf_i_mooncake_note {
  struct packbuf_i_mooncake_note *next;
  packbuf_i_mooncake_record record; /* removals: the generation alone */
  uint64_t tried;                   /* in which round of removals */
  packbuf_i_mooncake_why why;
  size_t key_size; /* the key follows */
} packbuf_i_mooncake_note;

typedef enum packbuf_i_mooncake_step {
  PACKBUF_I_MOONCAKE_DONE,
  PACKBUF_I_MOONCAKE_SETUP,
  PACKBUF_I_MOONCAKE_HEALTH,
  PACKBUF_I_MOONCAKE_PUT,
  PACKBUF_I_MOONCAKE_POINT, /* put for good; its pointer is under way */
  PACKBUF_I_MOONCAKE_LOOK,
  PACKBUF_I_MOONCAKE_SIZED, /* found: wants memory */
  PACKBUF_I_MOONCAKE_FETCH,
  PACKBUF_I_MOONCAKE_STAT,
  PACKBUF_I_MOONCAKE_REMOVE,
  PACKBUF_I_MOONCAKE_RETRY
} packbuf_i_mooncake_step;

/* One item while calls are made for it: a copy of all that they need, because its caller may leave before they end.
 * While a part runs it is the worker's, but for step and status, which the lock guards. */
typedef struct packbuf_i_mooncake_entry {
  uint64_t asked; /* generation; 0: the newest */
  packbuf_i_mooncake_record record, pointed; /* pointed: what the pointer names, when `looked` */
  packbuf_slice slice; /* of the pool, where the item gave none */
  uint8_t *at;         /* object and trailer */
  uint64_t size;
  packbuf_status status, found; /* found: how reading the pointer went */
  packbuf_i_mooncake_step step;
  packbuf_i_mooncake_why why;          /* RETRY */
  int code;                            /* SETUP, HEALTH: what the engine said */
  uint8_t force, tried, again, looked; /* tried: by a worker; again: not the first time */
  uint8_t saved;                       /* bytes of `tail` */
  uint8_t tail[63 + PACKBUF_I_MOONCAKE_RECORD]; /* of the caller's slice, where the trailer is */
  size_t key_size;
  char name[PACKBUF_I_MOONCAKE_NAME]; /* the key is its beginning */
} packbuf_i_mooncake_entry;

typedef struct packbuf_i_mooncake_part {
  struct packbuf_i_mooncake_part *next;
  struct packbuf_i_mooncake_group *group;
  packbuf_i_mooncake_step step;
  uint64_t first, count;
} packbuf_i_mooncake_part;

/* Items that are under way together. Freed by whoever lets go of it last: the caller, or a worker that was late. */
typedef struct packbuf_i_mooncake_group {
  packbuf_i_mooncake_part parts[PACKBUF_I_MOONCAKE_WORKERS];
  unsigned running, holders;
  int left; /* the caller has gone */
  uint64_t count;
  packbuf_i_mooncake_entry *entries;
} packbuf_i_mooncake_group;

typedef struct packbuf_i_mooncake_settings {
  char host[PACKBUF_MAX_URI + 1], metadata[PACKBUF_MAX_URI + 1], protocol[PACKBUF_MAX_URI + 1];
  char device[PACKBUF_MAX_URI + 1], uri[PACKBUF_MAX_URI + 1];
  uint64_t segment, buffer;
} packbuf_i_mooncake_settings;

/* What a thread is told. */
typedef struct packbuf_i_mooncake_worker {
  struct packbuf_i_mooncake *store;
  unsigned index;
} packbuf_i_mooncake_worker;

typedef struct packbuf_i_mooncake {
  packbuf_i_mooncake_api api;
  packbuf_allocator allocator;
  packbuf_i_mooncake_settings settings;
  packbuf_log log;
  void *log_context;
  void *client;
  packbuf_pool *pool;
  void *slab;                          /* of the pool, registered */
  uint8_t *scratch;                    /* a page for each worker, registered: where pointers are written and read */
  uint64_t copies, moved, waits, last; /* atomic; last: the generation that was drawn last */
  packbuf_i_lock lock;                 /* guards what follows, and step and status of entries */
  packbuf_i_signal work, ended;
  packbuf_i_mooncake_part *first, **end; /* parts that wait for a worker */
  unsigned threads;
  int closing, orphan;    /* orphan: nobody waits for the threads; the last one frees */
  uint64_t parked, round; /* notes of removals; rounds of trying them */
  packbuf_i_mooncake_note *notes[PACKBUF_I_MOONCAKE_CHAINS];
  pthread_t thread[PACKBUF_I_MOONCAKE_WORKERS];
  packbuf_i_mooncake_worker worker[PACKBUF_I_MOONCAKE_WORKERS];
} packbuf_i_mooncake;

static const packbuf_i_mooncake_config packbuf_i_mooncake_pinned = {1, 0, 1, NULL, 0};

/* ---- parts ---- */

/* What mooncake_items.c does for entries of a part, in a worker's thread; and its notes, gone. */
static void packbuf_i_mooncake_do(packbuf_i_mooncake *m, uint8_t *scratch, const packbuf_i_mooncake_part *part,
                                  packbuf_i_mooncake_entry *const *entries, size_t count);
static void packbuf_i_mooncake_forget_all(packbuf_i_mooncake *m);

/* Those entries of a part that are at its step; none when nobody waits for them any more. */
static size_t packbuf_i_mooncake_due(packbuf_i_mooncake *m, const packbuf_i_mooncake_part *part,
                                     packbuf_i_mooncake_entry **entries) {
  packbuf_i_mooncake_group *group = part->group;
  size_t count = 0;
  packbuf_i_locked(&m->lock);
  for (uint64_t i = part->first; !group->left && i < part->first + part->count; i++)
    if (group->entries[i].step == part->step) entries[count++] = &group->entries[i];
  packbuf_i_unlocked(&m->lock);
  return count;
}

static void packbuf_i_mooncake_run_part(packbuf_i_mooncake *m, unsigned worker, packbuf_i_mooncake_part *part) {
  packbuf_i_mooncake_entry *entries[PACKBUF_I_MOONCAKE_WINDOW];
  const size_t count = packbuf_i_mooncake_due(m, part, entries);
  if (count) packbuf_i_mooncake_do(m, m->scratch ? m->scratch + (size_t)4096 * worker : NULL, part, entries, count);
}

static void packbuf_i_mooncake_free_group(packbuf_i_mooncake *m, packbuf_i_mooncake_group *group) {
  for (uint64_t i = 0; i < group->count; i++) packbuf_slice_release(&group->entries[i].slice);
  (void)packbuf_i_heap(&m->allocator, group, sizeof *group + (size_t)group->count * sizeof *group->entries, 0);
}

/* The caller lets go of a group. */
static void packbuf_i_mooncake_let(packbuf_i_mooncake *m, packbuf_i_mooncake_group *group) {
  unsigned holders;
  packbuf_i_locked(&m->lock);
  holders = --group->holders;
  packbuf_i_unlocked(&m->lock);
  if (!holders) packbuf_i_mooncake_free_group(m, group);
}

static packbuf_i_mooncake_group *packbuf_i_mooncake_group_of(packbuf_i_mooncake *m, uint64_t count) {
  packbuf_i_mooncake_group *group = (packbuf_i_mooncake_group *)packbuf_i_heap(
      &m->allocator, NULL, 0, sizeof *group + (size_t)count * sizeof *group->entries);
  if (!group) return NULL;
  group->entries = (packbuf_i_mooncake_entry *)(void *)(group + 1);
  group->count = count;
  group->holders = 1;
  return group;
}

/* Frees everything; no thread runs. */
static void packbuf_i_mooncake_free(packbuf_i_mooncake *m) {
  packbuf_allocator allocator = m->allocator;
  if (m->slab) (void)m->api.unregister_buffer(m->client, m->slab);
  if (m->scratch) {
    (void)m->api.unregister_buffer(m->client, m->scratch);
    (void)munmap(m->scratch, PACKBUF_I_MOONCAKE_SCRATCH);
  }
  if (m->client) m->api.destroy(m->client);
  packbuf_i_mooncake_forget_all(m);
  packbuf_i_signal_end(&m->ended);
  packbuf_i_signal_end(&m->work);
  packbuf_i_lock_end(&m->lock);
  (void)packbuf_i_heap(&allocator, m, sizeof *m, 0);
}

static void *packbuf_i_mooncake_work(void *context) {
  const packbuf_i_mooncake_worker *const worker = (const packbuf_i_mooncake_worker *)context;
  packbuf_i_mooncake *const m = worker->store;
  int last;
  packbuf_i_locked(&m->lock);
  while (m->first || !m->closing) {
    packbuf_i_mooncake_part *part = m->first;
    packbuf_i_mooncake_group *group;
    if (!part) {
      (void)packbuf_i_wait(&m->work, &m->lock, PACKBUF_FOREVER);
      continue;
    }
    m->first = part->next;
    if (!m->first) m->end = &m->first;
    packbuf_i_unlocked(&m->lock);
    packbuf_i_mooncake_run_part(m, worker->index, part);
    packbuf_i_locked(&m->lock);
    group = part->group;
    group->running--;
    last = --group->holders == 0;
    packbuf_i_signal_all(&m->ended);
    if (!last) continue;
    packbuf_i_unlocked(&m->lock);
    packbuf_i_mooncake_free_group(m, group);
    packbuf_i_locked(&m->lock);
  }
  m->threads--;
  last = m->orphan && !m->threads;
  packbuf_i_unlocked(&m->lock);
  if (last) packbuf_i_mooncake_free(m);
  return NULL;
}

/* Has all entries that are at this step taken on, and waits. 0: the deadline passed first; what is not done then nobody
 * waits for, and the group must be let go. */
static int packbuf_i_mooncake_step_all(packbuf_i_mooncake *m, packbuf_i_mooncake_group *group,
                                       packbuf_i_mooncake_step step, uint64_t until) {
  uint64_t due = 0, first = 0, seen = 0;
  unsigned parts, i;
  int in_time = 1;
  packbuf_i_locked(&m->lock);
  for (uint64_t e = 0; e < group->count; e++) due += group->entries[e].step == step;
  parts = due < m->threads ? (unsigned)due : m->threads;
  for (i = 0; i < parts; i++) { /* as many due entries in each */
    packbuf_i_mooncake_part *part = &group->parts[i];
    uint64_t end = first;
    while (end < group->count && (i + 1 == parts || seen < due * (i + 1) / parts))
      seen += group->entries[end++].step == step;
    part->next = NULL;
    part->group = group;
    part->step = step;
    part->first = first;
    part->count = end - first;
    first = end;
    *m->end = part;
    m->end = &part->next;
    group->holders++;
    group->running++;
  }
  packbuf_i_signal_all(&m->work);
  while (group->running && in_time) in_time = packbuf_i_wait(&m->ended, &m->lock, until);
  in_time = !group->running;
  group->left = !in_time;
  packbuf_i_unlocked(&m->lock);
  return in_time;
}

/* ---- start and end ---- */

static int packbuf_i_mooncake_setup(packbuf_i_mooncake *m) {
  const packbuf_i_mooncake_settings *with = &m->settings;
  const char *const master = strchr(with->uri, ':') + 3; /* mooncake:// */
  return m->api.setup(m->client, with->host, with->metadata, with->segment, with->buffer, with->protocol, with->device,
                      master);
}

/* Runs a step that is not of an item. The engine's own code, negated, is the error's offset. */
static packbuf_status packbuf_i_mooncake_step_once(packbuf_i_mooncake *m, packbuf_i_mooncake_step step, uint64_t until,
                                                   const char *message, packbuf_error *error) {
  packbuf_i_mooncake_group *group = packbuf_i_mooncake_group_of(m, 1);
  packbuf_status status = PACKBUF_TIMEOUT;
  int code = 0;
  if (!group) return packbuf_i_no_memory(error);
  group->entries[0].step = step;
  if (packbuf_i_mooncake_step_all(m, group, step, until)) {
    status = group->entries[0].status;
    code = group->entries[0].code;
  }
  packbuf_i_mooncake_let(m, group);
  if (!status) return status;
  if (status == PACKBUF_TIMEOUT) return packbuf_i_call_fail(error, status, "Mooncake did not answer in time");
  return packbuf_i_fail(error, status, message, (uint64_t)(code < 0 ? -(int64_t)code : (int64_t)code), PACKBUF_NOWHERE);
}

/* Ends the threads, and frees. orphan: without waiting for a call that hangs. */
static void packbuf_i_mooncake_end(packbuf_i_mooncake *m, int orphan) {
  pthread_t threads[PACKBUF_I_MOONCAKE_WORKERS];
  unsigned count, left;
  packbuf_i_locked(&m->lock);
  count = m->threads;
  memcpy(threads, m->thread, sizeof threads);
  m->closing = 1;
  m->orphan = orphan && count;
  left = (unsigned)m->orphan;
  packbuf_i_signal_all(&m->work);
  packbuf_i_unlocked(&m->lock);
  for (unsigned i = 0; i < count; i++) {
    if (left) (void)pthread_detach(threads[i]);
    else (void)pthread_join(threads[i], NULL);
  }
  if (!left) packbuf_i_mooncake_free(m);
}

/* Shows the engine all the memory it will ever see: the pool, and a page for pointers for each worker. Callers' own
 * memory it does not see, so that no late call of its reads or writes what is theirs again. */
static packbuf_status packbuf_i_mooncake_show(packbuf_i_mooncake *m, packbuf_error *error) {
  const void *slab;
  uint64_t size;
  void *scratch = mmap(NULL, PACKBUF_I_MOONCAKE_SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (scratch == MAP_FAILED) return packbuf_i_call_fail(error, PACKBUF_OUT_OF_MEMORY, "no memory for pointers");
  if (m->api.register_buffer(m->client, scratch, PACKBUF_I_MOONCAKE_SCRATCH) != 0) {
    (void)munmap(scratch, PACKBUF_I_MOONCAKE_SCRATCH);
    return packbuf_i_call_fail(error, PACKBUF_SYSTEM, "Mooncake cannot register memory");
  }
  m->scratch = (uint8_t *)scratch;
  packbuf_i_pool_range(m->pool, &slab, &size);
  memcpy(&scratch, &slab, sizeof scratch);
  if (m->api.register_buffer(m->client, scratch, (size_t)size) != 0)
    return packbuf_i_call_fail(error, PACKBUF_SYSTEM, "Mooncake cannot register the pool's memory");
  m->slab = scratch;
  return PACKBUF_OK;
}

/* Client and threads, set up. */
static packbuf_status packbuf_i_mooncake_connect(packbuf_i_mooncake *m, const packbuf_store_options *options,
                                                 packbuf_error *error) {
  const unsigned asked = options->workers ? options->workers : 4;
  const unsigned wanted = asked < PACKBUF_I_MOONCAKE_WORKERS ? asked : PACKBUF_I_MOONCAKE_WORKERS;
  packbuf_status status;
  m->client = m->api.create();
  if (!m->client) return packbuf_i_call_fail(error, PACKBUF_SYSTEM, "Mooncake made no client");
  packbuf_i_locked(&m->lock);
  while (m->threads < wanted) {
    m->worker[m->threads].store = m;
    m->worker[m->threads].index = m->threads;
    if (pthread_create(&m->thread[m->threads], NULL, packbuf_i_mooncake_work, &m->worker[m->threads]) != 0) break;
    m->threads++;
  }
  packbuf_i_unlocked(&m->lock);
  if (!m->threads) return packbuf_i_call_fail(error, PACKBUF_SYSTEM, "no thread can be started");
  status = packbuf_i_mooncake_step_once(m, PACKBUF_I_MOONCAKE_SETUP,
                                        packbuf_deadline_in(options->connect_ms ? options->connect_ms : 5000),
                                        "Mooncake's client cannot be set up: is its master there?", error);
  return status ? status : packbuf_i_mooncake_show(m, error);
}
