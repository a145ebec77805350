/* transport/mooncake.c: the store `mooncake`: the distributed engine of that name, through its C ABI, loaded at run
 * time. The engine has no deadlines: worker threads make the calls, on memory that is the driver's for as long as they
 * last, and a caller leaves at its own deadline. KEY@generation is an object, written once, with a trailer of 64 bytes
 * behind it; "KEY@" is a pointer, the trailer of the newest, for those who have no ref.
 * May use: system, text (URIs, lines), pool, asked, driver.h. Must not know: handles, batches of rows. */
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

/* ---- what lies behind an object, and in a pointer ---- */

#define PACKBUF_I_MOONCAKE_RECORD 64u

typedef struct packbuf_i_mooncake_record {
  uint64_t generation, length, head_length;
  uint32_t head_checksum, flags;
  uint8_t kind, fingerprint[PACKBUF_FINGERPRINT];
} packbuf_i_mooncake_record;

static const uint8_t packbuf_i_mooncake_magic[2][8] = {{'P', 'B', 'M', 'C', 'O', 'B', 'J', '1'},
                                                       {'P', 'B', 'M', 'C', 'P', 'T', 'R', '1'}};

static void packbuf_i_mooncake_write(uint8_t *to, int pointer, const packbuf_i_mooncake_record *record) {
  memset(to, 0, PACKBUF_I_MOONCAKE_RECORD);
  memcpy(to, packbuf_i_mooncake_magic[pointer], 8);
  packbuf_i_store64(to + 8, record->generation);
  packbuf_i_store64(to + 16, record->length);
  packbuf_i_store64(to + 24, record->head_length);
  packbuf_i_store32(to + 32, record->head_checksum);
  packbuf_i_store32(to + 36, record->flags);
  to[40] = record->kind;
  memcpy(to + 44, record->fingerprint, PACKBUF_FINGERPRINT);
  packbuf_i_store32(to + 60, packbuf_checksum(0, to, 60));
}

/* 0: it is none. */
static int packbuf_i_mooncake_read(const uint8_t *from, int pointer, packbuf_i_mooncake_record *record) {
  if (memcmp(from, packbuf_i_mooncake_magic[pointer], 8) != 0) return 0;
  if (packbuf_i_load32(from + 60) != packbuf_checksum(0, from, 60)) return 0;
  record->generation = packbuf_i_load64(from + 8);
  record->length = packbuf_i_load64(from + 16);
  record->head_length = packbuf_i_load64(from + 24);
  record->head_checksum = packbuf_i_load32(from + 32);
  record->flags = packbuf_i_load32(from + 36);
  record->kind = from[40];
  memcpy(record->fingerprint, from + 44, PACKBUF_FINGERPRINT);
  return record->generation != 0;
}

/* What an object of this length takes in the engine: padded to 64, and its trailer. 0: no such length. */
static uint64_t packbuf_i_mooncake_space(uint64_t length) {
  if (length > UINT64_MAX - 63 - PACKBUF_I_MOONCAKE_RECORD) return 0;
  return (length + 63) / 64 * 64 + PACKBUF_I_MOONCAKE_RECORD;
}

#define PACKBUF_I_MOONCAKE_NAME (PACKBUF_MAX_KEY + 18) /* KEY@ + 16 digits + NUL */

/* KEY@generation; generation 0: the pointer, KEY@ alone, which can be no object's name. */
static void packbuf_i_mooncake_name(char *to, const char *key, size_t key_size, uint64_t generation) {
  memmove(to, key, key_size); /* a name may be made over in its place */
  to += key_size;
  *to++ = '@';
  for (unsigned i = 0; generation && i < 16; i++) *to++ = "0123456789abcdef"[generation >> (60 - 4 * i) & 15];
  *to = 0;
}

/* ---- the state ---- */

#define PACKBUF_I_MOONCAKE_WINDOW 64u   /* items under way at a time for one call */
#define PACKBUF_I_MOONCAKE_WORKERS 16u  /* at most */
#define PACKBUF_I_MOONCAKE_CHAINS 1024u /* of notes */
#define PACKBUF_I_MOONCAKE_KEPT 64u     /* notes of the newest kept in a chain */
#define PACKBUF_I_MOONCAKE_SCRATCH ((size_t)4096 * PACKBUF_I_MOONCAKE_WORKERS)
#define PACKBUF_I_MOONCAKE_GRACE 50000000u /* ns that a call may take whose deadline has passed already */

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
  packbuf_i_mooncake_record record;
  packbuf_slice slice; /* of the pool, where the item gave none */
  uint8_t *at;         /* object and trailer */
  uint64_t size;
  packbuf_status status;
  packbuf_i_mooncake_step step;
  packbuf_i_mooncake_why why;         /* RETRY */
  int code;                           /* SETUP, HEALTH: what the engine said */
  uint8_t force, tried, again, saved; /* tried: by a worker; again: not the first time; saved: bytes of `tail` */
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

/* The next generation: larger than any drawn or seen here before, and hardly one that another client draws too. */
static uint64_t packbuf_i_mooncake_draw(packbuf_i_mooncake *m) {
  const uint64_t micros = packbuf_i_wall_micros();
  uint64_t generation, last = PACKBUF_I_LOAD(&m->last);
  uint16_t random = 0;
  (void)packbuf_i_random(&random, sizeof random);
  do {
    generation = micros << 12 | (random & 4095u);
    if (generation <= last) generation = last + 1 + (random & 15u);
  } while (!PACKBUF_I_EXCHANGE(&m->last, &last, generation));
  return generation;
}

static void packbuf_i_mooncake_seen(packbuf_i_mooncake *m, uint64_t generation) {
  uint64_t last = PACKBUF_I_LOAD(&m->last);
  while (last < generation && !PACKBUF_I_EXCHANGE(&m->last, &last, generation)) continue;
}

/* ---- notes; all with the lock held ---- */

static packbuf_i_mooncake_note **packbuf_i_mooncake_chain(packbuf_i_mooncake *m, const char *key, size_t key_size) {
  return &m->notes[packbuf_checksum(0, key, key_size) % PACKBUF_I_MOONCAKE_CHAINS];
}

static int packbuf_i_mooncake_is(const packbuf_i_mooncake_note *note, const char *key, size_t key_size) {
  return note->key_size == key_size && memcmp(note + 1, key, key_size) == 0;
}

/* What the last put of this handle left under the key; NULL: nothing that is remembered. */
static packbuf_i_mooncake_note *packbuf_i_mooncake_newest(packbuf_i_mooncake *m, const char *key, size_t key_size) {
  packbuf_i_mooncake_note *note = *packbuf_i_mooncake_chain(m, key, key_size);
  while (note && (note->why != PACKBUF_I_MOONCAKE_NEWEST || !packbuf_i_mooncake_is(note, key, key_size)))
    note = note->next;
  return note;
}

/* The removal of a generation that has not happened yet; generation 0: of any that was asked for. */
static packbuf_i_mooncake_note *packbuf_i_mooncake_parked(packbuf_i_mooncake *m, const char *key, size_t key_size,
                                                          uint64_t generation) {
  packbuf_i_mooncake_note *note = *packbuf_i_mooncake_chain(m, key, key_size);
  for (; note; note = note->next)
    if (note->why != PACKBUF_I_MOONCAKE_NEWEST && packbuf_i_mooncake_is(note, key, key_size) &&
        (generation ? note->record.generation == generation : note->why == PACKBUF_I_MOONCAKE_REMOVED))
      return note;
  return NULL;
}

static void packbuf_i_mooncake_forget(packbuf_i_mooncake *m, packbuf_i_mooncake_note *gone) {
  packbuf_i_mooncake_note **note = packbuf_i_mooncake_chain(m, (const char *)(const void *)(gone + 1), gone->key_size);
  while (*note != gone) note = &(*note)->next;
  *note = gone->next;
  if (gone->why != PACKBUF_I_MOONCAKE_NEWEST) m->parked--;
  (void)packbuf_i_heap(&m->allocator, gone, sizeof *gone + gone->key_size, 0);
}

/* Forgets the oldest NEWEST of a chain that has too many: the pointers of the engine still tell. */
static void packbuf_i_mooncake_trim(packbuf_i_mooncake *m, packbuf_i_mooncake_note *chain) {
  packbuf_i_mooncake_note *oldest = NULL;
  unsigned count = 0;
  for (; chain; chain = chain->next) {
    if (chain->why != PACKBUF_I_MOONCAKE_NEWEST) continue;
    count++;
    if (!oldest || chain->record.generation < oldest->record.generation) oldest = chain;
  }
  if (count > PACKBUF_I_MOONCAKE_KEPT) packbuf_i_mooncake_forget(m, oldest);
}

/* Without memory nothing is noted: an object may then outlive its removal. */
static void packbuf_i_mooncake_remember(packbuf_i_mooncake *m, const char *key, size_t key_size,
                                        packbuf_i_mooncake_why why, const packbuf_i_mooncake_record *record) {
  packbuf_i_mooncake_note **chain = packbuf_i_mooncake_chain(m, key, key_size);
  packbuf_i_mooncake_note *note =
      (packbuf_i_mooncake_note *)packbuf_i_heap(&m->allocator, NULL, 0, sizeof *note + key_size);
  if (!note) return;
  note->record = *record;
  note->why = why;
  note->key_size = key_size;
  memcpy(note + 1, key, key_size);
  note->next = *chain;
  *chain = note;
  if (why != PACKBUF_I_MOONCAKE_NEWEST) m->parked++;
  else packbuf_i_mooncake_trim(m, *chain);
}

/* ---- calls of the engine, in worker threads, without the lock ---- */

/* Parks the removal of an object. */
static void packbuf_i_mooncake_park(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry, uint64_t generation,
                                    packbuf_i_mooncake_why why) {
  packbuf_i_mooncake_record record;
  packbuf_i_mooncake_note *note;
  memset(&record, 0, sizeof record);
  record.generation = generation;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_parked(m, entry->name, entry->key_size, generation);
  if (!note) packbuf_i_mooncake_remember(m, entry->name, entry->key_size, why, &record);
  else if (why == PACKBUF_I_MOONCAKE_REMOVED) note->why = why;
  packbuf_i_unlocked(&m->lock);
}

static void packbuf_i_mooncake_unpark(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                      uint64_t generation) {
  packbuf_i_mooncake_note *note;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_parked(m, entry->name, entry->key_size, generation);
  if (note) packbuf_i_mooncake_forget(m, note);
  packbuf_i_unlocked(&m->lock);
}

/* Removes one generation, or parks its removal when a lease or an error delays it. OK, NOT_FOUND, or why not. */
static packbuf_status packbuf_i_mooncake_drop(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                              uint64_t generation, packbuf_i_mooncake_why why, int force) {
  char name[PACKBUF_I_MOONCAKE_NAME];
  packbuf_status status;
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, generation);
  status = packbuf_i_mooncake_status(m->api.remove(m->client, name, force));
  if (!status || status == PACKBUF_NOT_FOUND) packbuf_i_mooncake_unpark(m, entry, generation);
  else packbuf_i_mooncake_park(m, entry, generation, why);
  return status;
}

/* Reads the pointer of a key. NOT_FOUND: there is none, or none that is whole. */
static packbuf_status packbuf_i_mooncake_pointer(packbuf_i_mooncake *m, uint8_t *scratch,
                                                 const packbuf_i_mooncake_entry *entry,
                                                 packbuf_i_mooncake_record *record) {
  char name[PACKBUF_I_MOONCAKE_NAME];
  int64_t got = -707;
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, 0);
  memset(record, 0, sizeof *record);
  for (int i = 0; i < 2 && got == -707; i++) got = m->api.get_into(m->client, name, scratch, PACKBUF_I_MOONCAKE_RECORD);
  if (got < 0) return packbuf_i_mooncake_status(got);
  (void)PACKBUF_I_ADD(&m->moved, (uint64_t)got);
  if (got != (int64_t)PACKBUF_I_MOONCAKE_RECORD || !packbuf_i_mooncake_read(scratch, 1, record))
    return PACKBUF_NOT_FOUND;
  packbuf_i_mooncake_seen(m, record->generation);
  return PACKBUF_OK;
}

/* Forced: a pointer that was just read is leased, and its 64 bytes have a checksum of their own. */
static int packbuf_i_mooncake_unpoint(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry) {
  char name[PACKBUF_I_MOONCAKE_NAME];
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, 0);
  return m->api.remove(m->client, name, 1);
}

/* 1, and *record: what this handle put last is newer than *record (nothing is: generation 0). */
static int packbuf_i_mooncake_own(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                  packbuf_i_mooncake_record *record) {
  const packbuf_i_mooncake_note *note;
  int found = 0;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
  if (note && note->record.generation > record->generation) {
    *record = note->record;
    found = 1;
  }
  packbuf_i_unlocked(&m->lock);
  return found;
}

/* What this handle knows of a generation without asking anyone: OK means nothing. */
static packbuf_status packbuf_i_mooncake_known(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                               uint64_t generation) {
  const packbuf_i_mooncake_note *note;
  packbuf_status status = PACKBUF_OK;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_parked(m, entry->name, entry->key_size, generation);
  if (note) status = note->why == PACKBUF_I_MOONCAKE_REMOVED ? PACKBUF_NOT_FOUND : PACKBUF_STALE;
  note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
  if (!status && note && note->record.generation > generation) status = PACKBUF_STALE;
  packbuf_i_unlocked(&m->lock);
  return status;
}

/* An object that was asked for by its generation is not there: STALE where the key names another. */
static packbuf_status packbuf_i_mooncake_missing(packbuf_i_mooncake *m, uint8_t *scratch,
                                                 const packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_record newest;
  const packbuf_status status = packbuf_i_mooncake_pointer(m, scratch, entry, &newest);
  if (status) return status;
  if (newest.generation == entry->asked) return PACKBUF_NOT_FOUND;
  return packbuf_i_mooncake_known(m, entry, newest.generation) == PACKBUF_NOT_FOUND ? PACKBUF_NOT_FOUND : PACKBUF_STALE;
}

static void packbuf_i_mooncake_finish(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry, packbuf_status status) {
  packbuf_i_locked(&m->lock);
  entry->status = status;
  entry->step = PACKBUF_I_MOONCAKE_DONE;
  entry->tried = 1;
  packbuf_i_unlocked(&m->lock);
}

/* ---- put ---- */

/* Makes the pointer name `record`, or what is newer. The engine cannot exchange: so remove, put, read back, and look
 * once more whether another put of this handle came in between. *older: what it named before; 0: nothing. */
static packbuf_status packbuf_i_mooncake_point(packbuf_i_mooncake *m, uint8_t *scratch,
                                               const packbuf_i_mooncake_entry *entry, uint64_t *older,
                                               uint64_t *newest) {
  packbuf_i_mooncake_record record = entry->record, there;
  char name[PACKBUF_I_MOONCAKE_NAME];
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, 0);
  *older = 0;
  for (int i = 0; i < 16; i++) {
    packbuf_status status = packbuf_i_mooncake_pointer(m, scratch, entry, &there);
    if (status && status != PACKBUF_NOT_FOUND) return status;
    (void)packbuf_i_mooncake_own(m, entry, &record);
    *newest = there.generation > record.generation ? there.generation : record.generation;
    if (there.generation >= record.generation) return PACKBUF_OK;
    if (there.generation && there.generation < entry->record.generation) *older = there.generation;
    (void)packbuf_i_mooncake_unpoint(m, entry);
    packbuf_i_mooncake_write(scratch, 1, &record);
    status = packbuf_i_mooncake_status(
        m->api.put_from(m->client, name, scratch, PACKBUF_I_MOONCAKE_RECORD, &packbuf_i_mooncake_pinned));
    if (status) return status;
    (void)PACKBUF_I_ADD(&m->moved, PACKBUF_I_MOONCAKE_RECORD);
  }
  return PACKBUF_OK;
}

/* The object is in the engine. 1: the caller waited for it, so that it is put; 0: nobody did. *own: the generation that
 * this handle had put before. */
static int packbuf_i_mooncake_commit(packbuf_i_mooncake *m, const packbuf_i_mooncake_group *group,
                                     packbuf_i_mooncake_entry *entry, uint64_t *own) {
  packbuf_i_mooncake_note *note;
  int waited;
  *own = 0;
  packbuf_i_locked(&m->lock);
  waited = !group->left;
  if (waited) {
    entry->status = PACKBUF_OK;
    entry->step = PACKBUF_I_MOONCAKE_POINT;
    note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
    if (!note) {
      packbuf_i_mooncake_remember(m, entry->name, entry->key_size, PACKBUF_I_MOONCAKE_NEWEST, &entry->record);
    } else if (note->record.generation < entry->record.generation) {
      *own = note->record.generation;
      note->record = entry->record;
    }
  }
  packbuf_i_unlocked(&m->lock);
  return waited;
}

/* One put ended with this code. */
static void packbuf_i_mooncake_put_ended(packbuf_i_mooncake *m, uint8_t *scratch, const packbuf_i_mooncake_group *group,
                                         packbuf_i_mooncake_entry *entry, int code) {
  const uint64_t generation = entry->record.generation;
  packbuf_status status = packbuf_i_mooncake_status(code);
  uint64_t own, older = 0, newest = generation;
  if (status) { /* it may be there all the same: its name is known to nobody and will not be used again */
    if (status == PACKBUF_DISCONNECTED || status == PACKBUF_TIMEOUT || status == PACKBUF_SYSTEM)
      packbuf_i_mooncake_park(m, entry, generation, PACKBUF_I_MOONCAKE_LATE);
    packbuf_i_mooncake_finish(m, entry, status);
    return;
  }
  (void)PACKBUF_I_ADD(&m->moved, entry->size);
  if (!packbuf_i_mooncake_commit(m, group, entry, &own)) {
    (void)packbuf_i_mooncake_drop(m, entry, generation, PACKBUF_I_MOONCAKE_LATE, 1);
    return;
  }
  status = packbuf_i_mooncake_point(m, scratch, entry, &older, &newest);
  if (!status && newest > generation)
    (void)packbuf_i_mooncake_drop(m, entry, generation, PACKBUF_I_MOONCAKE_SUPERSEDED, 0);
  if (own) (void)packbuf_i_mooncake_drop(m, entry, own, PACKBUF_I_MOONCAKE_SUPERSEDED, 0);
  if (older && older != own) (void)packbuf_i_mooncake_drop(m, entry, older, PACKBUF_I_MOONCAKE_SUPERSEDED, 0);
  packbuf_i_mooncake_finish(m, entry, status == PACKBUF_TIMEOUT ? PACKBUF_DISCONNECTED : status);
}

static void packbuf_i_mooncake_put_part(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_group *group,
                                        packbuf_i_mooncake_entry *const *entries, size_t count) {
  const char *names[PACKBUF_I_MOONCAKE_WINDOW];
  void *buffers[PACKBUF_I_MOONCAKE_WINDOW];
  size_t sizes[PACKBUF_I_MOONCAKE_WINDOW];
  int results[PACKBUF_I_MOONCAKE_WINDOW], code;
  for (size_t i = 0; i < count; i++) {
    names[i] = entries[i]->name;
    buffers[i] = entries[i]->at;
    sizes[i] = (size_t)entries[i]->size;
    results[i] = -1;
  }
  code = m->api.batch_put_from(m->client, names, buffers, sizes, count, &packbuf_i_mooncake_pinned, results);
  for (size_t i = 0; i < count; i++)
    packbuf_i_mooncake_put_ended(m, scratch, group, entries[i], code ? code : results[i]);
}

/* ---- get and stat ---- */

static void packbuf_i_mooncake_sized(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry, uint64_t size) {
  packbuf_i_mooncake_name(entry->name, entry->name, entry->key_size, entry->record.generation);
  packbuf_i_locked(&m->lock);
  entry->size = size;
  entry->step = PACKBUF_I_MOONCAKE_SIZED;
  packbuf_i_unlocked(&m->lock);
}

/* Finds the newest. */
static packbuf_status packbuf_i_mooncake_find_newest(packbuf_i_mooncake *m, uint8_t *scratch,
                                                     packbuf_i_mooncake_entry *entry) {
  packbuf_status status = packbuf_i_mooncake_pointer(m, scratch, entry, &entry->record);
  if (status && status != PACKBUF_NOT_FOUND) return status;
  if (packbuf_i_mooncake_own(m, entry, &entry->record)) return PACKBUF_OK;
  if (status) return status;
  return packbuf_i_mooncake_known(m, entry, entry->record.generation) ? PACKBUF_NOT_FOUND : PACKBUF_OK;
}

/* Asks for the size of an object whose generation is known, and nothing else. */
static void packbuf_i_mooncake_size_up(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_entry *entry) {
  int64_t size;
  entry->record.generation = entry->asked;
  packbuf_i_mooncake_name(entry->name, entry->name, entry->key_size, entry->asked);
  size = m->api.get_size(m->client, entry->name);
  if (size < 0) {
    packbuf_status status = packbuf_i_mooncake_status(size);
    if (status == PACKBUF_NOT_FOUND) status = packbuf_i_mooncake_missing(m, scratch, entry);
    packbuf_i_mooncake_finish(m, entry, status);
  } else if (size < (int64_t)PACKBUF_I_MOONCAKE_RECORD || size % 64) {
    packbuf_i_mooncake_finish(m, entry, PACKBUF_SHORT_READ);
  } else packbuf_i_mooncake_sized(m, entry, (uint64_t)size);
}

/* What a get wants to know first: which generation, and how large. */
static void packbuf_i_mooncake_look(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_entry *entry) {
  packbuf_status status;
  uint64_t size;
  memset(&entry->record, 0, sizeof entry->record);
  if (entry->asked) {
    status = packbuf_i_mooncake_known(m, entry, entry->asked);
    if (!status && (!packbuf_i_mooncake_own(m, entry, &entry->record) || entry->record.generation != entry->asked)) {
      packbuf_i_mooncake_size_up(m, scratch, entry);
      return;
    }
  } else status = packbuf_i_mooncake_find_newest(m, scratch, entry);
  size = packbuf_i_mooncake_space(entry->record.length);
  if (status || !size) packbuf_i_mooncake_finish(m, entry, status ? status : PACKBUF_PROTOCOL);
  else packbuf_i_mooncake_sized(m, entry, size);
}

/* Whether the object is there: the one place that asks in a way that leases it. */
static packbuf_status packbuf_i_mooncake_exists(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry) {
  int code;
  packbuf_i_mooncake_name(entry->name, entry->name, entry->key_size, entry->record.generation);
  code = m->api.is_exist(m->client, entry->name);
  return code == 0 ? PACKBUF_NOT_FOUND : packbuf_i_mooncake_status(code);
}

static void packbuf_i_mooncake_stat(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_entry *entry) {
  packbuf_status status;
  if (!entry->asked) {
    status = packbuf_i_mooncake_find_newest(m, scratch, entry);
    packbuf_i_mooncake_finish(m, entry, status ? status : packbuf_i_mooncake_exists(m, entry));
    return;
  }
  status = packbuf_i_mooncake_known(m, entry, entry->asked);
  if (!status) {
    status = packbuf_i_mooncake_pointer(m, scratch, entry, &entry->record);
    if (status == PACKBUF_NOT_FOUND) status = PACKBUF_OK;
  }
  if (status) {
    packbuf_i_mooncake_finish(m, entry, status);
    return;
  }
  (void)packbuf_i_mooncake_own(m, entry, &entry->record);
  if (entry->record.generation == entry->asked)
    packbuf_i_mooncake_finish(m, entry, packbuf_i_mooncake_exists(m, entry));
  else if (entry->record.generation > entry->asked) packbuf_i_mooncake_finish(m, entry, PACKBUF_STALE);
  else packbuf_i_mooncake_size_up(m, scratch, entry); /* the pointer is behind: the trailer has what is asked */
}

/* Whether what arrived is the object, all of it. */
static packbuf_status packbuf_i_mooncake_check(packbuf_i_mooncake_entry *entry, int64_t got) {
  packbuf_i_mooncake_record record;
  if (got < 0) return packbuf_i_mooncake_status(got);
  if ((uint64_t)got != entry->size ||
      !packbuf_i_mooncake_read(entry->at + entry->size - PACKBUF_I_MOONCAKE_RECORD, 0, &record) ||
      packbuf_i_mooncake_space(record.length) != entry->size)
    return PACKBUF_SHORT_READ;
  if (record.generation != entry->record.generation) return PACKBUF_PROTOCOL;
  entry->record = record;
  return PACKBUF_OK;
}

static void packbuf_i_mooncake_fetch_part(packbuf_i_mooncake *m, uint8_t *scratch,
                                          packbuf_i_mooncake_entry *const *entries, size_t count) {
  const char *names[PACKBUF_I_MOONCAKE_WINDOW];
  void *buffers[PACKBUF_I_MOONCAKE_WINDOW];
  size_t sizes[PACKBUF_I_MOONCAKE_WINDOW];
  int64_t results[PACKBUF_I_MOONCAKE_WINDOW];
  int code;
  for (size_t i = 0; i < count; i++) {
    names[i] = entries[i]->name;
    buffers[i] = entries[i]->at;
    sizes[i] = (size_t)entries[i]->size;
    results[i] = -1;
  }
  code = m->api.batch_get_into(m->client, names, buffers, sizes, count, results);
  for (size_t i = 0; i < count; i++) {
    packbuf_i_mooncake_entry *entry = entries[i];
    int64_t got = code ? code : results[i];
    packbuf_status status;
    if (got == -707) got = m->api.get_into(m->client, entry->name, entry->at, (size_t)entry->size);
    if (got > 0) (void)PACKBUF_I_ADD(&m->moved, (uint64_t)got);
    status = packbuf_i_mooncake_check(entry, got);
    if (status == PACKBUF_NOT_FOUND && entry->asked) status = packbuf_i_mooncake_missing(m, scratch, entry);
    packbuf_i_mooncake_finish(m, entry, status);
  }
}

/* ---- remove ---- */

/* This handle's newest is no longer that. */
static void packbuf_i_mooncake_unnote(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                      uint64_t generation) {
  packbuf_i_mooncake_note *note;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
  if (note && note->record.generation == generation) packbuf_i_mooncake_forget(m, note);
  packbuf_i_unlocked(&m->lock);
}

/* Tries those removals of a key again that were asked for; how they went, NOT_FOUND: there were none. */
static packbuf_status packbuf_i_mooncake_remove_parked(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry) {
  uint64_t generations[PACKBUF_I_MOONCAKE_KEPT];
  size_t count = 0;
  packbuf_status status = PACKBUF_NOT_FOUND;
  packbuf_i_mooncake_note *note;
  packbuf_i_locked(&m->lock);
  note = *packbuf_i_mooncake_chain(m, entry->name, entry->key_size);
  for (; note && count < PACKBUF_I_MOONCAKE_KEPT; note = note->next)
    if (note->why == PACKBUF_I_MOONCAKE_REMOVED && packbuf_i_mooncake_is(note, entry->name, entry->key_size))
      generations[count++] = note->record.generation;
  packbuf_i_unlocked(&m->lock);
  for (size_t i = 0; i < count; i++) {
    packbuf_status one = packbuf_i_mooncake_drop(m, entry, generations[i], PACKBUF_I_MOONCAKE_REMOVED, entry->force);
    if (one == PACKBUF_NOT_FOUND) one = PACKBUF_OK; /* gone in the meantime */
    if (one || status == PACKBUF_NOT_FOUND) status = one;
  }
  return status;
}

/* Removes what is newest, and with it the key. */
static packbuf_status packbuf_i_mooncake_remove_newest(packbuf_i_mooncake *m, uint8_t *scratch,
                                                       packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_record pointed;
  packbuf_status status = PACKBUF_NOT_FOUND, found, parked;
  if (!entry->again) { /* later the key may be another's */
    found = packbuf_i_mooncake_pointer(m, scratch, entry, &pointed);
    if (found && found != PACKBUF_NOT_FOUND) return found;
    entry->record = pointed;
    (void)packbuf_i_mooncake_own(m, entry, &entry->record);
    if (!found) (void)packbuf_i_mooncake_unpoint(m, entry);
    packbuf_i_mooncake_unnote(m, entry, entry->record.generation);
    if (entry->record.generation)
      status = packbuf_i_mooncake_drop(m, entry, entry->record.generation, PACKBUF_I_MOONCAKE_REMOVED, entry->force);
    if (pointed.generation && pointed.generation != entry->record.generation)
      (void)packbuf_i_mooncake_drop(m, entry, pointed.generation, PACKBUF_I_MOONCAKE_REMOVED, entry->force);
  }
  parked = status == PACKBUF_LEASED ? PACKBUF_LEASED : packbuf_i_mooncake_remove_parked(m, entry);
  if (status && status != PACKBUF_NOT_FOUND) return status;
  return parked == PACKBUF_NOT_FOUND ? entry->again ? PACKBUF_OK : status : parked;
}

/* Removes one generation. */
static packbuf_status packbuf_i_mooncake_remove_one(packbuf_i_mooncake *m, uint8_t *scratch,
                                                    packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_record newest;
  packbuf_status status, found = packbuf_i_mooncake_known(m, entry, entry->asked);
  int stale;
  if (found == PACKBUF_STALE) return found; /* its removal is under way because of that */
  if (found == PACKBUF_NOT_FOUND) {
    status = packbuf_i_mooncake_drop(m, entry, entry->asked, PACKBUF_I_MOONCAKE_REMOVED, entry->force);
    return status == PACKBUF_NOT_FOUND ? PACKBUF_OK : status;
  }
  if (entry->again) return PACKBUF_OK; /* another call was quicker */
  found = packbuf_i_mooncake_pointer(m, scratch, entry, &newest);
  if (found && found != PACKBUF_NOT_FOUND) return found;
  stale = newest.generation > entry->asked;
  if (newest.generation == entry->asked) {
    entry->record = newest;
    (void)packbuf_i_mooncake_unpoint(m, entry);
  } else entry->record.generation = entry->asked;
  packbuf_i_mooncake_unnote(m, entry, entry->asked);
  status = packbuf_i_mooncake_drop(m, entry, entry->asked,
                                   stale ? PACKBUF_I_MOONCAKE_SUPERSEDED : PACKBUF_I_MOONCAKE_REMOVED, entry->force);
  if (stale || (status == PACKBUF_NOT_FOUND && newest.generation && newest.generation != entry->asked))
    return PACKBUF_STALE;
  return status;
}

static void packbuf_i_mooncake_retry(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_finish(m, entry, packbuf_i_mooncake_drop(m, entry, entry->asked, entry->why, entry->force));
}

/* ---- workers ---- */

static int packbuf_i_mooncake_setup(packbuf_i_mooncake *m) {
  const packbuf_i_mooncake_settings *with = &m->settings;
  const char *const master = strchr(with->uri, ':') + 3; /* mooncake:// */
  return m->api.setup(m->client, with->host, with->metadata, with->segment, with->buffer, with->protocol, with->device,
                      master);
}

static void packbuf_i_mooncake_one(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_step step,
                                   packbuf_i_mooncake_entry *entry) {
  switch (step) {
    case PACKBUF_I_MOONCAKE_SETUP:
    case PACKBUF_I_MOONCAKE_HEALTH:
      entry->code = step == PACKBUF_I_MOONCAKE_SETUP ? packbuf_i_mooncake_setup(m) : m->api.health_check(m->client);
      packbuf_i_mooncake_finish(m, entry, entry->code ? PACKBUF_DISCONNECTED : PACKBUF_OK);
      break;
    case PACKBUF_I_MOONCAKE_LOOK: packbuf_i_mooncake_look(m, scratch, entry); break;
    case PACKBUF_I_MOONCAKE_STAT: packbuf_i_mooncake_stat(m, scratch, entry); break;
    case PACKBUF_I_MOONCAKE_REMOVE:
      packbuf_i_mooncake_finish(m, entry,
                                entry->asked ? packbuf_i_mooncake_remove_one(m, scratch, entry)
                                             : packbuf_i_mooncake_remove_newest(m, scratch, entry));
      break;
    case PACKBUF_I_MOONCAKE_RETRY: packbuf_i_mooncake_retry(m, entry); break;
    default: break;
  }
}

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

static int packbuf_i_mooncake_alone(packbuf_i_mooncake *m, const packbuf_i_mooncake_group *group) {
  int left;
  packbuf_i_locked(&m->lock);
  left = group->left;
  packbuf_i_unlocked(&m->lock);
  return left;
}

static void packbuf_i_mooncake_run_part(packbuf_i_mooncake *m, unsigned worker, packbuf_i_mooncake_part *part) {
  packbuf_i_mooncake_entry *entries[PACKBUF_I_MOONCAKE_WINDOW];
  uint8_t *const scratch = m->scratch ? m->scratch + (size_t)4096 * worker : NULL;
  const size_t count = packbuf_i_mooncake_due(m, part, entries);
  if (!count) return;
  if (part->step == PACKBUF_I_MOONCAKE_PUT) packbuf_i_mooncake_put_part(m, scratch, part->group, entries, count);
  else if (part->step == PACKBUF_I_MOONCAKE_FETCH) packbuf_i_mooncake_fetch_part(m, scratch, entries, count);
  else
    for (size_t i = 0; i < count; i++) {
      if (i && packbuf_i_mooncake_alone(m, part->group)) break;
      packbuf_i_mooncake_one(m, scratch, part->step, entries[i]);
    }
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
  for (size_t i = 0; i < PACKBUF_I_MOONCAKE_CHAINS; i++)
    while (m->notes[i]) packbuf_i_mooncake_forget(m, m->notes[i]);
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

/* ---- a batch, in its caller's thread ---- */

typedef struct packbuf_i_mooncake_run {
  packbuf_i_mooncake *store;
  packbuf_call *call;
  packbuf_i_mooncake_group *group;
  packbuf_item *items; /* those of the group */
  uint64_t first;      /* index of items[0] in the batch */
  uint64_t until;      /* the deadline, or a little later: what is asked without waiting is asked all the same */
} packbuf_i_mooncake_run;

static void packbuf_i_mooncake_begin(packbuf_i_mooncake_entry *entry, const packbuf_item *item,
                                     packbuf_i_mooncake_step step) {
  entry->key_size = strlen(item->key);
  if (entry->key_size > PACKBUF_MAX_KEY) entry->key_size = PACKBUF_MAX_KEY;
  entry->asked = item->generation;
  entry->force = (item->flags & PACKBUF_REMOVE_FORCE) != 0;
  entry->status = PACKBUF_TIMEOUT; /* until somebody says otherwise */
  entry->step = step;
  packbuf_i_mooncake_name(entry->name, item->key, entry->key_size, item->generation);
}

/* Cancelled items are done before anything is done for them. */
static int packbuf_i_mooncake_cancelled(const packbuf_i_mooncake_run *run, uint64_t i) {
  packbuf_i_mooncake_entry *entry = &run->group->entries[i];
  if (!run->call->cancelled || !run->call->cancelled(run->call, run->first + i)) return 0;
  entry->status = PACKBUF_CANCELLED;
  entry->step = PACKBUF_I_MOONCAKE_DONE;
  return 1;
}

static void packbuf_i_mooncake_answer(const packbuf_i_mooncake_run *run, uint64_t i, packbuf_status status) {
  run->items[i].status = status;
  run->call->done(run->call, run->first + i);
}

static void packbuf_i_mooncake_tell(packbuf_stat *stat, const packbuf_i_mooncake_record *record) {
  const uint64_t micros = packbuf_i_wall_micros();
  memset(stat, 0, sizeof *stat);
  stat->generation = record->generation;
  stat->length = record->length;
  stat->head_length = record->head_length;
  stat->age_ms = micros > record->generation >> 12 ? (micros - (record->generation >> 12)) / 1000u : 0;
  stat->left_ms = UINT64_MAX;
  stat->head_checksum = record->head_checksum;
  stat->flags = record->flags;
  stat->kind = record->kind;
  memcpy(stat->fingerprint, record->fingerprint, PACKBUF_FINGERPRINT);
}

/* Takes what is known of an entry when nobody waits for it any more. 1: it is done; 0: its worker still has it. A put
 * whose object is there is a put, though its pointer is not yet. */
static int packbuf_i_mooncake_settled(const packbuf_i_mooncake_run *run, uint64_t i, packbuf_status *status) {
  const packbuf_i_mooncake_entry *entry = &run->group->entries[i];
  int done;
  packbuf_i_locked(&run->store->lock);
  done = entry->step == PACKBUF_I_MOONCAKE_DONE;
  *status = done || entry->step == PACKBUF_I_MOONCAKE_POINT ? entry->status : PACKBUF_TIMEOUT;
  packbuf_i_unlocked(&run->store->lock);
  return done;
}

/* ---- puts ---- */

/* The item's slice, where the pool's pages leave room for a trailer behind its bytes. Bytes of the caller's that the
 * trailer covers are kept: they come back when the put fails. */
static int packbuf_i_mooncake_in_place(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry,
                                       const packbuf_item *item) {
  const packbuf_slice *slice = item->slice;
  uint64_t at, room, visible;
  if (!slice || !item->from || !packbuf_i_pool_owns(m->pool, slice)) return 0;
  at = (uint64_t)((const uint8_t *)item->from - (const uint8_t *)slice->data);
  room = (slice->size + 4095) / 4096 * 4096;
  if (at > slice->size || entry->size > room - at) return 0;
  visible = slice->size - at - item->size;
  if (visible > entry->size - item->size) visible = entry->size - item->size;
  entry->at = (uint8_t *)slice->data + at;
  entry->saved = (uint8_t)visible;
  memcpy(entry->tail, entry->at + item->size, (size_t)visible);
  return 1;
}

/* Takes a slice of the pool for an entry that is of this size. */
static packbuf_status packbuf_i_mooncake_take(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry, uint32_t account,
                                              uint64_t deadline) {
  packbuf_status status = packbuf_pool_take(m->pool, account, &entry->size, 1, deadline, &entry->slice, NULL);
  entry->at = (uint8_t *)entry->slice.data;
  return status;
}

/* Object and trailer, as they will be written. */
static packbuf_status packbuf_i_mooncake_prepare(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry,
                                                 const packbuf_item *item, uint64_t deadline) {
  packbuf_i_mooncake_record *record = &entry->record;
  entry->size = packbuf_i_mooncake_space(item->size);
  if (!entry->size) return PACKBUF_CAPACITY;
  if (!packbuf_i_mooncake_in_place(m, entry, item)) {
    const packbuf_status status = packbuf_i_mooncake_take(m, entry, item->account, deadline);
    if (status) return status;
    if (item->size) memcpy(entry->at, item->from, (size_t)item->size);
    (void)PACKBUF_I_ADD(&m->copies, 1);
  }
  memset(record, 0, sizeof *record);
  record->generation = packbuf_i_mooncake_draw(m);
  record->length = item->size;
  record->flags = item->flags;
  if (item->about) {
    record->head_length = item->about->head_length;
    record->head_checksum = item->about->head_checksum;
    record->kind = item->about->kind;
    memcpy(record->fingerprint, item->about->fingerprint, PACKBUF_FINGERPRINT);
  }
  packbuf_i_mooncake_name(entry->name, item->key, entry->key_size, record->generation);
  memset(entry->at + item->size, 0, (size_t)(entry->size - item->size - PACKBUF_I_MOONCAKE_RECORD));
  packbuf_i_mooncake_write(entry->at + entry->size - PACKBUF_I_MOONCAKE_RECORD, 0, record);
  return PACKBUF_OK;
}

static uint64_t packbuf_i_mooncake_retry_all(packbuf_i_mooncake *m, uint64_t until);

/* How many entries ended with this status, and had got as far as a worker. */
static uint64_t packbuf_i_mooncake_ended(const packbuf_i_mooncake_group *group, packbuf_status status) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < group->count; i++)
    count += group->entries[i].step == PACKBUF_I_MOONCAKE_DONE && group->entries[i].status == status &&
             group->entries[i].tried;
  return count;
}

/* Those are put back to a step. */
static void packbuf_i_mooncake_again(packbuf_i_mooncake_group *group, packbuf_status status,
                                     packbuf_i_mooncake_step step) {
  for (uint64_t i = 0; i < group->count; i++) {
    packbuf_i_mooncake_entry *entry = &group->entries[i];
    if (entry->step != PACKBUF_I_MOONCAKE_DONE || entry->status != status || !entry->tried) continue;
    entry->step = step;
    entry->again = 1;
  }
}

/* Between two tries of what waits for somebody else; longer each time. 0: the deadline has passed. */
static int packbuf_i_mooncake_pause(const packbuf_i_mooncake_run *run, uint64_t *pause) {
  const uint64_t now = packbuf_now(), deadline = run->call->deadline;
  if (now >= deadline) return 0;
  if (*pause == 0) {
    *pause = 2000000;
    (void)PACKBUF_I_ADD(&run->store->waits, 1);
  }
  packbuf_i_sleep_until(deadline - now < *pause ? deadline : now + *pause);
  if (*pause < 64000000) *pause *= 2;
  return packbuf_now() < deadline;
}

/* Puts as many items as the pool has room for at once, and the window has; how many. */
static uint64_t packbuf_i_mooncake_put_window(packbuf_i_mooncake_run *run) {
  packbuf_i_mooncake *const m = run->store;
  packbuf_i_mooncake_group *const group = run->group;
  uint64_t count = 0, ready = 0, pause = 0;
  int in_time;
  for (; count < group->count; count++) {
    packbuf_i_mooncake_entry *entry = &group->entries[count];
    const packbuf_item *item = &run->items[count];
    packbuf_i_mooncake_begin(entry, item, PACKBUF_I_MOONCAKE_DONE);
    if (packbuf_i_mooncake_cancelled(run, count)) continue;
    entry->status = packbuf_i_mooncake_prepare(m, entry, item, ready ? PACKBUF_NO_WAIT : run->call->deadline);
    if (ready && (entry->status == PACKBUF_FULL || entry->status == PACKBUF_QUOTA)) break;
    if (entry->status) continue;
    entry->status = PACKBUF_TIMEOUT;
    entry->step = PACKBUF_I_MOONCAKE_PUT;
    ready++;
  }
  in_time = packbuf_i_mooncake_step_all(m, group, PACKBUF_I_MOONCAKE_PUT, run->until);
  while (in_time && packbuf_i_mooncake_ended(group, PACKBUF_FULL)) { /* what waits to be removed goes first */
    if (!packbuf_i_mooncake_retry_all(m, run->until) && !packbuf_i_mooncake_pause(run, &pause)) break;
    packbuf_i_mooncake_again(group, PACKBUF_FULL, PACKBUF_I_MOONCAKE_PUT);
    in_time = packbuf_i_mooncake_step_all(m, group, PACKBUF_I_MOONCAKE_PUT, run->until);
  }
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_mooncake_entry *entry = &group->entries[i];
    packbuf_status status;
    if (!packbuf_i_mooncake_settled(run, i, &status) && status && entry->again) status = PACKBUF_FULL;
    if (!status) packbuf_i_mooncake_tell(&run->items[i].stat, &entry->record);
    else if (entry->saved) memcpy(entry->at + run->items[i].size, entry->tail, entry->saved);
    packbuf_i_mooncake_answer(run, i, status);
  }
  return count;
}

/* ---- gets ---- */

/* Keeps a slice as a lease. */
static packbuf_status packbuf_i_mooncake_lease(packbuf_i_mooncake *m, packbuf_slice *slice, const uint8_t *data,
                                               uint64_t size, packbuf_lease *lease) {
  packbuf_slice *kept = (packbuf_slice *)packbuf_i_heap(&m->allocator, NULL, 0, sizeof *kept);
  if (!kept) return PACKBUF_OUT_OF_MEMORY;
  *kept = *slice;
  memset(slice, 0, sizeof *slice);
  lease->data = data;
  lease->size = size;
  lease->token = (uint64_t)(uintptr_t)kept;
  return PACKBUF_OK;
}

static void packbuf_i_mooncake_let_go(void *state, uint64_t token) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  packbuf_slice *const kept = (packbuf_slice *)(uintptr_t)token;
  packbuf_slice_release(kept);
  (void)packbuf_i_heap(&m->allocator, kept, sizeof *kept, 0);
}

/* A lease on what is asked: where it lies when it is one run, else a slice of its own. */
static packbuf_status packbuf_i_mooncake_lease_asked(const packbuf_i_mooncake_run *run, packbuf_i_mooncake_entry *entry,
                                                     packbuf_item *item, const packbuf_i_wanted_bytes *asked) {
  packbuf_i_mooncake *const m = run->store;
  packbuf_i_mooncake_entry cut;
  packbuf_status status;
  if (asked->run)
    return packbuf_i_mooncake_lease(m, &entry->slice, entry->at + asked->first, asked->size, &item->lease);
  memset(&cut, 0, sizeof cut);
  cut.size = asked->size;
  status = packbuf_i_mooncake_take(m, &cut, item->account, run->call->deadline);
  if (status) return status;
  packbuf_i_item_copy(item, entry->at, asked->size, cut.at);
  status = packbuf_i_mooncake_lease(m, &cut.slice, cut.at, asked->size, &item->lease);
  packbuf_slice_release(&cut.slice);
  return status;
}

/* Hands what arrived to its item. */
static packbuf_status packbuf_i_mooncake_hand_over(const packbuf_i_mooncake_run *run, packbuf_i_mooncake_entry *entry,
                                                   packbuf_item *item) {
  packbuf_i_wanted_bytes asked;
  packbuf_status status;
  packbuf_i_mooncake_tell(&item->stat, &entry->record);
  status = packbuf_i_item_asks(item, entry->record.length, &asked);
  if (status) return status;
  if (item->into) packbuf_i_item_copy(item, entry->at, asked.size, (uint8_t *)item->into);
  else status = packbuf_i_mooncake_lease_asked(run, entry, item, &asked);
  if (!status) item->got = asked.size;
  return status;
}

/* Takes memory for those that wait for it. How many can be fetched. */
static uint64_t packbuf_i_mooncake_find_room(packbuf_i_mooncake_run *run) {
  uint64_t ready = 0;
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_entry *entry = &run->group->entries[i];
    packbuf_status status;
    if (entry->step != PACKBUF_I_MOONCAKE_SIZED) continue;
    status = packbuf_i_mooncake_take(run->store, entry, run->items[i].account,
                                     ready ? PACKBUF_NO_WAIT : run->call->deadline);
    if (ready && (status == PACKBUF_FULL || status == PACKBUF_QUOTA)) break; /* memory of the others comes back first */
    entry->status = status ? status : PACKBUF_TIMEOUT;
    entry->step = status ? PACKBUF_I_MOONCAKE_DONE : PACKBUF_I_MOONCAKE_FETCH;
    ready += !status;
  }
  return ready;
}

/* Answers items that have ended, and gives their memory back. all: those too that nobody waits for any more. Items that
 * were answered have no key in their entry. */
static void packbuf_i_mooncake_harvest(packbuf_i_mooncake_run *run, int all) {
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_entry *entry = &run->group->entries[i];
    packbuf_item *item = &run->items[i];
    packbuf_status status;
    const int done = packbuf_i_mooncake_settled(run, i, &status);
    if (!entry->key_size || (!done && !all)) continue;
    if (done && status == PACKBUF_NOT_FOUND && !entry->asked && !entry->again && entry->at && !all) {
      packbuf_slice_release(&entry->slice); /* replaced since the pointer was read: look once more */
      entry->again = 1;
      entry->step = PACKBUF_I_MOONCAKE_LOOK;
      continue;
    }
    if (!status && run->call->operation == PACKBUF_GET) status = packbuf_i_mooncake_hand_over(run, entry, item);
    else if (!status) packbuf_i_mooncake_tell(&item->stat, &entry->record);
    if (done) {
      packbuf_slice_release(&entry->slice);
      entry->key_size = 0;
    }
    packbuf_i_mooncake_answer(run, i, status);
  }
}

static void packbuf_i_mooncake_get_window(packbuf_i_mooncake_run *run) {
  const packbuf_i_mooncake_step step =
      run->call->operation == PACKBUF_GET ? PACKBUF_I_MOONCAKE_LOOK : PACKBUF_I_MOONCAKE_STAT;
  int in_time;
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_begin(&run->group->entries[i], &run->items[i], step);
    (void)packbuf_i_mooncake_cancelled(run, i);
  }
  do {
    in_time = packbuf_i_mooncake_step_all(run->store, run->group, step, run->until);
    if (in_time && step == PACKBUF_I_MOONCAKE_STAT)
      in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_LOOK, run->until);
    if (!in_time) break;
    packbuf_i_mooncake_harvest(run, 0);
    if (packbuf_i_mooncake_find_room(run))
      in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_FETCH, run->until);
    if (in_time) packbuf_i_mooncake_harvest(run, 0);
    for (uint64_t i = 0; in_time && i < run->group->count; i++)
      if (run->group->entries[i].key_size) break;
      else if (i + 1 == run->group->count) return;
  } while (in_time);
  packbuf_i_mooncake_harvest(run, 1);
}

/* ---- removals ---- */

static void packbuf_i_mooncake_remove_window(packbuf_i_mooncake_run *run) {
  uint64_t pause = 0;
  int in_time;
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_begin(&run->group->entries[i], &run->items[i], PACKBUF_I_MOONCAKE_REMOVE);
    (void)packbuf_i_mooncake_cancelled(run, i);
  }
  in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_REMOVE, run->until);
  while (in_time && packbuf_i_mooncake_ended(run->group, PACKBUF_LEASED) && packbuf_i_mooncake_pause(run, &pause)) {
    packbuf_i_mooncake_again(run->group, PACKBUF_LEASED, PACKBUF_I_MOONCAKE_REMOVE);
    in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_REMOVE, run->until);
  }
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_entry *entry = &run->group->entries[i];
    packbuf_status status;
    const int done = packbuf_i_mooncake_settled(run, i, &status);
    if (!done && entry->again) status = PACKBUF_LEASED;
    if (done && !status) packbuf_i_mooncake_tell(&run->items[i].stat, &entry->record);
    packbuf_i_mooncake_answer(run, i, status);
  }
}

/* ---- removals that have not happened yet ---- */

/* Fills a group with removals that this round has not tried; how many. */
static uint64_t packbuf_i_mooncake_gather(packbuf_i_mooncake *m, packbuf_i_mooncake_group *group, uint64_t round) {
  uint64_t count = 0;
  packbuf_i_locked(&m->lock);
  for (size_t i = 0; i < PACKBUF_I_MOONCAKE_CHAINS && m->parked; i++)
    for (packbuf_i_mooncake_note *note = m->notes[i]; note && count < group->count; note = note->next) {
      packbuf_i_mooncake_entry *entry;
      if (note->why == PACKBUF_I_MOONCAKE_NEWEST || note->tried >= round) continue;
      entry = &group->entries[count++];
      note->tried = round;
      entry->key_size = note->key_size;
      entry->asked = note->record.generation;
      entry->why = note->why;
      entry->force = note->why == PACKBUF_I_MOONCAKE_LATE;
      entry->step = PACKBUF_I_MOONCAKE_RETRY;
      packbuf_i_mooncake_name(entry->name, (const char *)(const void *)(note + 1), note->key_size, entry->asked);
    }
  packbuf_i_unlocked(&m->lock);
  return count;
}

/* Tries each of them once; how many went. */
static uint64_t packbuf_i_mooncake_retry_all(packbuf_i_mooncake *m, uint64_t until) {
  uint64_t round, parked, count = 1, gone = 0;
  int in_time = 1;
  packbuf_i_locked(&m->lock);
  round = ++m->round;
  parked = m->parked;
  packbuf_i_unlocked(&m->lock);
  while (parked && in_time && count) {
    packbuf_i_mooncake_group *group = packbuf_i_mooncake_group_of(
        m, parked < PACKBUF_I_MOONCAKE_WINDOW ? parked : (uint64_t)PACKBUF_I_MOONCAKE_WINDOW);
    if (!group) break;
    count = packbuf_i_mooncake_gather(m, group, round);
    in_time = packbuf_i_mooncake_step_all(m, group, PACKBUF_I_MOONCAKE_RETRY, until);
    for (uint64_t i = 0; in_time && i < count; i++) gone += group->entries[i].status == PACKBUF_OK;
    packbuf_i_mooncake_let(m, group);
  }
  return gone;
}

static uint64_t packbuf_i_mooncake_until(uint64_t deadline) {
  const uint64_t soon = packbuf_now() + PACKBUF_I_MOONCAKE_GRACE;
  return deadline > soon ? deadline : soon;
}

static packbuf_status packbuf_i_mooncake_collect(void *state, uint64_t deadline, uint64_t *left, packbuf_error *error) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  (void)error;
  (void)packbuf_i_mooncake_retry_all(m, packbuf_i_mooncake_until(deadline));
  packbuf_i_locked(&m->lock);
  if (left) *left = m->parked;
  packbuf_i_unlocked(&m->lock);
  return PACKBUF_OK;
}

/* ---- the driver ---- */

static void packbuf_i_mooncake_run_call(void *state, packbuf_call *call) {
  packbuf_i_mooncake_run run;
  run.store = (packbuf_i_mooncake *)state;
  run.call = call;
  run.until = packbuf_i_mooncake_until(call->deadline);
  for (run.first = 0; run.first < call->count;) {
    uint64_t count = call->count - run.first;
    packbuf_status status = PACKBUF_TIMEOUT;
    if (count > PACKBUF_I_MOONCAKE_WINDOW) count = PACKBUF_I_MOONCAKE_WINDOW;
    run.items = call->items + run.first;
    run.group = NULL;
    if (packbuf_now() < run.until) {
      run.group = packbuf_i_mooncake_group_of(run.store, count);
      status = PACKBUF_OUT_OF_MEMORY;
    }
    if (!run.group) {
      for (uint64_t i = 0; i < count; i++) packbuf_i_mooncake_answer(&run, i, status);
    } else {
      if (call->operation == PACKBUF_PUT) count = packbuf_i_mooncake_put_window(&run);
      else if (call->operation == PACKBUF_REMOVE) packbuf_i_mooncake_remove_window(&run);
      else packbuf_i_mooncake_get_window(&run);
      packbuf_i_mooncake_let(run.store, run.group);
    }
    run.first += count;
  }
}

static packbuf_status packbuf_i_mooncake_option(void *context, const packbuf_i_uri_option *option) {
  packbuf_i_mooncake_settings *const to = (packbuf_i_mooncake_settings *)context;
  const size_t size = strlen(option->value);
  char *text = NULL;
  if (strcmp(option->name, "host") == 0) text = to->host;
  else if (strcmp(option->name, "metadata") == 0) text = to->metadata;
  else if (strcmp(option->name, "protocol") == 0) text = to->protocol;
  else if (strcmp(option->name, "device") == 0) text = to->device;
  if (text) memcpy(text, option->value, size + 1);
  else if (strcmp(option->name, "segment") == 0)
    return packbuf_i_parse_size(option->value, size, UINT64_MAX, &to->segment) ? PACKBUF_OK : PACKBUF_INVALID_ARGUMENT;
  else if (strcmp(option->name, "buffer") == 0)
    return packbuf_i_parse_size(option->value, size, UINT64_MAX, &to->buffer) ? PACKBUF_OK : PACKBUF_INVALID_ARGUMENT;
  else return PACKBUF_NOT_FOUND;
  return PACKBUF_OK;
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
  const unsigned wanted = options->workers == 0 ? 4 : options->workers < 16 ? options->workers : 16;
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

static packbuf_status packbuf_i_mooncake_open(void **state, const char *uri, const packbuf_store_options *options,
                                              packbuf_error *error) {
  packbuf_store_options with = *options;
  packbuf_i_mooncake_settings settings;
  packbuf_allocator allocator = {NULL, NULL};
  packbuf_i_mooncake_api api;
  packbuf_i_mooncake *m;
  packbuf_status status;
  memset(&settings, 0, sizeof settings);
  memcpy(settings.host, "localhost", 10);
  memcpy(settings.metadata, "P2PHANDSHAKE", 13);
  memcpy(settings.protocol, "tcp", 4);
  settings.segment = (uint64_t)512 << 20;
  settings.buffer = (uint64_t)16 << 20;
  status =
      packbuf_i_uri_options(uri, &with, settings.uri, sizeof settings.uri, packbuf_i_mooncake_option, &settings, error);
  if (status) return status;
  if (strncmp(settings.uri, "mooncake://", 11) != 0 || !settings.uri[11])
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "mooncake://HOST:PORT is the address of the master", 9,
                          PACKBUF_NOWHERE);
  if (!with.pool) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "the engine moves slices of a pool");
  status = packbuf_i_mooncake_load(&api, error);
  if (status) return status;
  if (with.allocator) allocator = *with.allocator;
  m = (packbuf_i_mooncake *)packbuf_i_heap(&allocator, NULL, 0, sizeof *m);
  if (!m) return packbuf_i_no_memory(error);
  m->api = api;
  m->allocator = allocator;
  m->settings = settings;
  m->log = with.log;
  m->log_context = with.log_context;
  m->pool = with.pool;
  m->end = &m->first;
  if (!packbuf_i_lock_start(&m->lock) || !packbuf_i_signal_start(&m->work) || !packbuf_i_signal_start(&m->ended)) {
    (void)packbuf_i_heap(&allocator, m, sizeof *m, 0);
    return packbuf_i_no_memory(error);
  }
  status = packbuf_i_mooncake_connect(m, &with, error);
  if (status) packbuf_i_mooncake_end(m, status == PACKBUF_TIMEOUT);
  else *state = m;
  return status;
}

static void packbuf_i_mooncake_close(void *state) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  uint64_t left = 0;
  (void)packbuf_i_mooncake_collect(state, packbuf_deadline_in(5000), &left, NULL);
  if (left && m->log)
    m->log(m->log_context, PACKBUF_LOG_WARNING, "mooncake: objects stay whose removal leases of the engine delayed");
  packbuf_i_mooncake_end(m, 0);
}

static packbuf_status packbuf_i_mooncake_describe(void *state, packbuf_store_info *info, uint64_t deadline,
                                                  packbuf_error *error) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  memset(info, 0, sizeof *info);
  info->transport = "mooncake";
  memcpy(info->uri, m->settings.uri, sizeof info->uri);
  info->capabilities = PACKBUF_CAN_OUTLIVE;
  info->size = info->used = info->objects = info->most_objects = UINT64_MAX;
  return packbuf_i_mooncake_step_once(m, PACKBUF_I_MOONCAKE_HEALTH, packbuf_i_mooncake_until(deadline),
                                      "Mooncake's client does not reach its master", error);
}

static void packbuf_i_mooncake_count(void *state, packbuf_counters *counters) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  counters->copies += PACKBUF_I_LOAD(&m->copies);
  counters->bytes_moved += PACKBUF_I_LOAD(&m->moved);
  counters->waits += PACKBUF_I_LOAD(&m->waits);
  counters->registrations += 1; /* the handle counts the pool's */
  counters->registered += PACKBUF_I_MOONCAKE_SCRATCH;
}

static const packbuf_driver packbuf_i_mooncake_driver = {sizeof(packbuf_driver),
                                                         "mooncake",
                                                         packbuf_i_mooncake_open,
                                                         packbuf_i_mooncake_close,
                                                         packbuf_i_mooncake_describe,
                                                         NULL,
                                                         NULL,
                                                         NULL,
                                                         NULL,
                                                         packbuf_i_mooncake_run_call,
                                                         packbuf_i_mooncake_let_go,
                                                         NULL,
                                                         packbuf_i_mooncake_collect,
                                                         packbuf_i_mooncake_count,
                                                         NULL,
                                                         NULL};
