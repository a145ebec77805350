/* tests/double/mooncake.c: a shared library with the 19 functions of Mooncake's store_c.h, as the engine behaves, for
 * tests: its master lies in a mapping, of this process or, with DOUBLE_MASTER=FILE, of all that name this file. Gets,
 * sizes and questions whether something exists grant a lease; a removal under one is refused; a put on an existing key
 * says 0 and writes nothing; a get's size is a capacity; size 0 stores nothing; of a key twice in a batch the last
 * buffer alone is put, or filled; memory must be registered, ranges apart from each other. Tests turn lease clock,
 * faults, delays and room by the functions double_... at the end; processes by DOUBLE_ROOM (bytes), DOUBLE_LEASE_MS (of
 * the real clock) and two files: while FILE.stop is there no call returns, while FILE.away is there the master has
 * gone, with its objects. May use: the C library, POSIX threads. Must not know: packbuf. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

struct mooncake_replicate_config {
  size_t replica_num;
  int with_soft_pin, with_hard_pin;
  const char **preferred_segments;
  size_t preferred_segments_count;
};
typedef struct mooncake_replicate_config config_type;

enum {
  OK = 0,
  INTERNAL_ERROR = -1,
  NO_AVAILABLE_HANDLE = -200,
  INVALID_PARAMS = -600,
  REPLICA_IS_NOT_READY = -703,
  OBJECT_NOT_FOUND = -704,
  OBJECT_HAS_LEASE = -706,
  LEASE_EXPIRED = -707,
  RPC_FAIL = -900
};

/* In the order of store_c.h; also the numbers of the functions for double_fail and the like. */
enum {
  CREATE,
  DESTROY,
  SETUP,
  INIT_ALL,
  HEALTH_CHECK,
  PUT,
  PUT_FROM,
  BATCH_PUT_FROM,
  GET_INTO,
  BATCH_GET_INTO,
  IS_EXIST,
  BATCH_IS_EXIST,
  GET_SIZE,
  GET_HOSTNAME,
  REMOVE,
  REMOVE_BY_REGEX,
  REMOVE_ALL,
  REGISTER_BUFFER,
  UNREGISTER_BUFFER,
  FUNCTIONS
};

/* ---- the master ---- */

#define OBJECTS 32768u /* at most */
#define CHAINS 8192u
#define NAME 320u
#define PAGE ((uint64_t)4096)
#define PAGES ((uint64_t)1 << 19) /* of what is stored: 2 GiB, of which nothing takes memory that was never used */
#define SMALL 4096u               /* up to here bytes are copied with the lock held */
#define PUT_STARTED_MS 1000u      /* a put that has not ended by then is discarded (the engine: 30 s) */

enum { FREE, STARTED, STORED };

typedef struct object {
  char key[NAME];
  uint64_t size, page, leased_until, started, number;
  uint32_t next; /* in its chain: index + 1 */
  int state, pinned;
} object;

/* Zero at first. Whoever dies with the lock held may leave wrong what follows from the objects: it is made again. */
typedef struct master_state {
  pthread_mutex_t mutex;
  int ready;
  uint64_t clock, lease, capacity, numbers;
  object objects[OBJECTS];
  uint64_t used, first_free; /* the first page that may be free */
  uint32_t rover, chains[CHAINS];
  uint8_t taken[PAGES];
  _Alignas(4096) uint8_t bytes[PAGES * PAGE];
} master_state;

static master_state *master;
static const char *shared_file; /* NULL: the master is this process's own */
static int real_clock;

static uint64_t milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static uint64_t lease_clock(void) { return master->clock + (real_clock ? milliseconds() : 0); }

static uint64_t pages_of(uint64_t size) { return (size + PAGE - 1) / PAGE; }

static uint32_t *chain_of(const char *key) {
  uint32_t hash = 2166136261u;
  for (; *key; key++) hash = (hash ^ (uint8_t)*key) * 16777619u;
  return &master->chains[hash % CHAINS];
}

/* An object that has its members joins the others. */
static void join(object *o) {
  uint32_t *chain = chain_of(o->key);
  o->next = *chain;
  *chain = (uint32_t)(o - master->objects) + 1;
  master->used += o->size;
  memset(master->taken + o->page, 1, (size_t)pages_of(o->size));
}

static void join_again(void) {
  master->used = master->first_free = 0;
  memset(master->chains, 0, sizeof master->chains);
  memset(master->taken, 0, sizeof master->taken);
  for (unsigned i = 0; i < OBJECTS; i++)
    if (master->objects[i].state != FREE) join(&master->objects[i]);
}

static void lock(void) {
  if (pthread_mutex_lock(&master->mutex) != EOWNERDEAD) return;
  join_again();
  pthread_mutex_consistent(&master->mutex);
}

static void unlock(void) { pthread_mutex_unlock(&master->mutex); }

static void empty(uint64_t capacity, uint64_t lease) {
  memset(master->objects, 0, sizeof master->objects);
  join_again();
  master->clock = 0;
  master->lease = lease;
  master->capacity = capacity;
}

static uint64_t number_of(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* Maps the master; the first to do so makes its lock. */
__attribute__((constructor)) static void find_master(void) {
  pthread_mutexattr_t kind;
  void *mapped;
  int fd = -1;
  shared_file = getenv("DOUBLE_MASTER");
  real_clock = getenv("DOUBLE_LEASE_MS") != NULL;
  if (shared_file) {
    fd = open(shared_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || lockf(fd, F_LOCK, 0) != 0 || ftruncate(fd, sizeof *master) != 0) abort();
  }
  mapped = mmap(NULL, sizeof *master, PROT_READ | PROT_WRITE,
                shared_file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, fd, 0);
  if (mapped == MAP_FAILED) abort();
  master = (master_state *)mapped;
  if (!master->ready) {
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&master->mutex, &kind);
    empty(number_of("DOUBLE_ROOM", UINT64_MAX), number_of("DOUBLE_LEASE_MS", 10000));
    master->ready = 1;
  }
  if (fd >= 0) (void)close(fd);
}

static object *find(const char *key) {
  uint32_t at = *chain_of(key);
  while (at && strcmp(master->objects[at - 1].key, key) != 0) at = master->objects[at - 1].next;
  return at ? &master->objects[at - 1] : NULL;
}

static object *vacant(void) {
  for (unsigned i = 0; i < OBJECTS; i++) {
    object *o = &master->objects[master->rover++ % OBJECTS];
    if (o->state == FREE) return o;
  }
  return NULL;
}

static void drop(object *o) {
  uint32_t *link = chain_of(o->key);
  while (*link != (uint32_t)(o - master->objects) + 1) link = &master->objects[*link - 1].next;
  *link = o->next;
  memset(master->taken + o->page, 0, (size_t)pages_of(o->size));
  if (o->page < master->first_free) master->first_free = o->page;
  master->used -= o->size;
  o->state = FREE;
}

/* The first so many pages in a row that are free; PAGES: there are none. */
static uint64_t free_pages(uint64_t count) {
  uint64_t from = master->first_free, size = 0;
  for (uint64_t at = from; at < PAGES; at++) {
    if (master->taken[at]) {
      if (from == master->first_free && !size) master->first_free = at + 1;
      size = 0;
      from = at + 1;
    } else if (++size == count) return from;
  }
  return PAGES;
}

static void discard_started(void) {
  const uint64_t now = milliseconds();
  for (unsigned i = 0; i < OBJECTS; i++)
    if (master->objects[i].state == STARTED && now - master->objects[i].started > PUT_STARTED_MS)
      drop(&master->objects[i]);
}

/* Makes room for an object, which nobody can read yet. */
static int put_start(const char *key, size_t size, const config_type *config, object **made) {
  object *o;
  uint64_t page;
  *made = NULL;
  if (find(key)) return OK; /* what it was it stays */
  if (strlen(key) >= NAME) return INTERNAL_ERROR;
  if (size > master->capacity || master->used > master->capacity - size) discard_started();
  if (size > master->capacity || master->used > master->capacity - size) return NO_AVAILABLE_HANDLE;
  page = free_pages(pages_of(size));
  o = page == PAGES ? NULL : vacant();
  if (!o) return NO_AVAILABLE_HANDLE;
  strcpy(o->key, key);
  o->size = size;
  o->page = page;
  o->leased_until = 0;
  o->started = milliseconds();
  o->number = ++master->numbers;
  o->pinned = config && config->with_hard_pin;
  o->state = STARTED;
  join(o);
  *made = o;
  return OK;
}

static uint8_t *bytes_of(const object *o) { return master->bytes + o->page * PAGE; }

/* Bytes travel without the lock, so that who is stopped meanwhile stops nobody else; a writer that is killed leaves
 * what it started. */
static int stored(const char *key, const void *value, size_t size, const config_type *config) {
  object *o;
  uint64_t number;
  int code;
  if (!key || (!value && size)) return INTERNAL_ERROR;
  if (config && config->replica_num == 0) return INVALID_PARAMS;
  if (size == 0) return OK; /* and nothing is there */
  lock();
  code = put_start(key, size, config, &o);
  if (o) {
    number = o->number;
    if (size > SMALL) {
      unlock();
      memcpy(bytes_of(o), value, size);
      lock();
    } else memcpy(bytes_of(o), value, size);
    if (o->state == STARTED && o->number == number) o->state = STORED;
    else code = OBJECT_NOT_FOUND; /* discarded, it took too long */
  }
  unlock();
  return code;
}

/* Who asks for an object leases it; its size, or why not. */
static int64_t leased(object *found) {
  if (!found) return OBJECT_NOT_FOUND;
  if (found->state != STORED) return REPLICA_IS_NOT_READY;
  found->leased_until = lease_clock() + master->lease;
  return (int64_t)found->size;
}

/* ---- this process: its clients, and what is planned for their calls ---- */

typedef struct range {
  struct range *next;
  const uint8_t *from;
  size_t size;
} range;

typedef struct client {
  range *ranges;
} client;

/* What happens at some call of a function, or at every call for a name. */
typedef struct plan {
  struct plan *next;
  int function, code, ended; /* code: the answer; 0: none but its own */
  uint64_t at, milliseconds; /* at which call; how long that takes */
  int lie;                   /* the call is made all the same */
  char *part;                /* NULL, or only for keys that this is a part of */
} plan;

static struct {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  plan *plans;
  uint64_t calls[FUNCTIONS], waiting;
  int clients, ranges, unhealthy, gate; /* gate: the function whose calls wait; -1: none */
} own = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, {0}, 0, 0, 0, 0, -1};

static void own_lock(void) { pthread_mutex_lock(&own.mutex); }
static void own_unlock(void) { pthread_mutex_unlock(&own.mutex); }

static void sleep_ms(uint64_t ms) {
  struct timespec some;
  some.tv_sec = (time_t)(ms / 1000);
  some.tv_nsec = (long)(ms % 1000) * 1000000;
  nanosleep(&some, NULL);
}

static int beside_master(const char *suffix) {
  char name[512];
  if (!shared_file || snprintf(name, sizeof name, "%s%s", shared_file, suffix) >= (int)sizeof name) return 0;
  return access(name, F_OK) == 0;
}

/* What a master that is stopped or away does to every call. */
static int unreachable(void) {
  while (beside_master(".stop")) sleep_ms(5);
  if (!beside_master(".away")) return 0;
  lock();
  for (unsigned i = 0; i < OBJECTS; i++)
    if (master->objects[i].state != FREE) drop(&master->objects[i]);
  unlock();
  return RPC_FAIL;
}

/* Counts a call and does what is planned for it; 0 or the planned answer. *lie: what it says in the end though it was
 * made. */
static int counted(int function, const char *key, int *lie) {
  uint64_t number;
  int code = unreachable();
  own_lock();
  number = own.calls[function]++;
  for (plan *p = own.plans; p; p = p->next) {
    if (p->ended || p->function != function || (p->part && !(key && strstr(key, p->part)))) continue;
    if (!p->part && p->at != number) continue;
    p->ended = 1;
    if (!p->lie) code = p->code;
    else if (lie) *lie = p->code;
    if (p->milliseconds) {
      own_unlock();
      sleep_ms(p->milliseconds);
      own_lock();
    }
    break;
  }
  own.waiting++;
  pthread_cond_broadcast(&own.changed);
  while (own.gate == function) pthread_cond_wait(&own.changed, &own.mutex);
  own.waiting--;
  own_unlock();
  return code;
}

static int registered(const void *store, const void *buffer, size_t size) {
  const uint8_t *from = (const uint8_t *)buffer;
  int inside = 0;
  own_lock();
  for (const range *r = ((const client *)store)->ranges; r && !inside; r = r->next)
    inside = from >= r->from && from + size <= r->from + r->size;
  own_unlock();
  return inside;
}

static int put_one(const void *store, const char *key, const void *buffer, size_t size, const config_type *config) {
  return !size || registered(store, buffer, size) ? stored(key, buffer, size, config) : INVALID_PARAMS;
}

/* buffer NULL: nothing is filled, but said to be. */
static int64_t get_one(const void *store, const char *key, void *buffer, size_t capacity) {
  object *o;
  const uint8_t *bytes = NULL;
  uint64_t until = 0;
  int64_t size;
  lock();
  o = find(key);
  size = leased(o);
  if (size > 0) {
    bytes = bytes_of(o);
    until = o->leased_until;
    if ((size_t)size > capacity || (buffer && !registered(store, buffer, (size_t)size))) size = INVALID_PARAMS;
    else if (buffer && (size_t)size <= SMALL) memcpy(buffer, bytes, (size_t)size);
  }
  unlock();
  if (!buffer || size <= (int64_t)SMALL) return size;
  memcpy(buffer, bytes, (size_t)size);
  lock();
  if (lease_clock() > until) size = LEASE_EXPIRED; /* the bytes could be another's by now */
  unlock();
  return size;
}

static int exists(const char *key) {
  int64_t size;
  if (!key) return INTERNAL_ERROR;
  lock();
  size = leased(find(key));
  unlock();
  return size > 0;
}

API void *mooncake_store_create(void) {
  client *made;
  if (counted(CREATE, NULL, NULL)) return NULL;
  made = (client *)calloc(1, sizeof *made);
  own_lock();
  own.clients += made != NULL;
  own_unlock();
  return made;
}

API void mooncake_store_destroy(void *store) {
  client *gone = (client *)store;
  if (!gone) return;
  (void)counted(DESTROY, NULL, NULL);
  own_lock();
  own.clients--;
  for (range *r = gone->ranges, *next; r; r = next) {
    next = r->next;
    own.ranges--;
    free(r);
  }
  own_unlock();
  free(gone);
}

API int mooncake_store_setup(void *store, const char *host, const char *metadata, uint64_t segment, uint64_t buffer,
                             const char *protocol, const char *device, const char *address) {
  int code;
  (void)buffer, (void)protocol, (void)device, (void)address;
  if (!store || !host || !metadata) return INTERNAL_ERROR;
  code = counted(SETUP, NULL, NULL);
  if (code) return code;
  lock();
  if (master->capacity == UINT64_MAX) master->capacity = segment;
  unlock();
  return code;
}

API int mooncake_store_init_all(void *store, const char *protocol, const char *device, uint64_t segment) {
  return mooncake_store_setup(store, "localhost:12345", "127.0.0.1:2379", segment, 0, protocol, device, NULL);
}

API int mooncake_store_health_check(void *store) {
  const int code = counted(HEALTH_CHECK, NULL, NULL);
  return code == RPC_FAIL ? 2 : code ? code : !store ? 1 : own.unhealthy;
}

API int mooncake_store_put(void *store, const char *key, const void *value, size_t size, const config_type *config) {
  int code;
  if (!store) return INTERNAL_ERROR;
  code = counted(PUT, key, NULL);
  return code ? code : stored(key, value, size, config);
}

API int mooncake_store_put_from(void *store, const char *key, void *buffer, size_t size, const config_type *config) {
  int code;
  if (!store) return INTERNAL_ERROR;
  code = counted(PUT_FROM, key, NULL);
  return code ? code : put_one(store, key, buffer, size, config);
}

/* Where a key of a batch is named for the last time. */
static size_t last_of(const char **keys, size_t count, size_t i) {
  size_t last = i;
  for (size_t j = i + 1; j < count; j++)
    if (strcmp(keys[i], keys[j]) == 0) last = j;
  return last;
}

API int mooncake_store_batch_put_from(void *store, const char **keys, void **buffers, const size_t *sizes,
                                      size_t count, const config_type *config, int *results) {
  int code;
  if (!store || !keys || !buffers || !sizes || !results) return INTERNAL_ERROR;
  code = counted(BATCH_PUT_FROM, NULL, NULL);
  for (size_t i = 0; i < count && !code; i++) {
    const size_t last = last_of(keys, count, i);
    int lie = 0;
    results[i] = counted(PUT_FROM, keys[i], &lie);
    if (!results[i] && !sizes[i]) results[i] = INVALID_PARAMS;
    if (!results[i]) results[i] = put_one(store, keys[i], buffers[last], sizes[last], config);
    if (lie) results[i] = lie;
  }
  return code;
}

API int64_t mooncake_store_get_into(void *store, const char *key, void *buffer, size_t capacity) {
  int code;
  if (!store || !key || !buffer) return INTERNAL_ERROR;
  code = counted(GET_INTO, key, NULL);
  return code ? code : get_one(store, key, buffer, capacity);
}

API int mooncake_store_batch_get_into(void *store, const char **keys, void **buffers, const size_t *sizes,
                                      size_t count, int64_t *results) {
  int code;
  if (!store || !keys || !buffers || !sizes || !results) return INTERNAL_ERROR;
  code = counted(BATCH_GET_INTO, NULL, NULL);
  for (size_t i = 0; i < count && !code; i++) {
    const size_t last = last_of(keys, count, i);
    results[i] = counted(GET_INTO, keys[i], NULL);
    if (!results[i]) results[i] = get_one(store, keys[i], last == i ? buffers[i] : NULL, sizes[i]);
  }
  return code;
}

API int mooncake_store_is_exist(void *store, const char *key) {
  int code;
  if (!store) return INTERNAL_ERROR;
  code = counted(IS_EXIST, key, NULL);
  return code ? code : exists(key);
}

API int mooncake_store_batch_is_exist(void *store, const char **keys, size_t count, int *results) {
  int code;
  if (!store || !keys || !results) return INTERNAL_ERROR;
  code = counted(BATCH_IS_EXIST, NULL, NULL);
  for (size_t i = 0; i < count && !code; i++) results[i] = exists(keys[i]);
  return code;
}

API int64_t mooncake_store_get_size(void *store, const char *key) {
  int64_t code;
  if (!store || !key) return INTERNAL_ERROR;
  code = counted(GET_SIZE, key, NULL);
  if (code) return code;
  lock();
  code = leased(find(key));
  unlock();
  return code;
}

API int mooncake_store_get_hostname(void *store, char *name, size_t size) {
  if (!store || !name || size < 10) return INTERNAL_ERROR;
  memcpy(name, "localhost", 10);
  return OK;
}

API int mooncake_store_remove(void *store, const char *key, int force) {
  object *o;
  int code;
  if (!store || !key) return INTERNAL_ERROR;
  code = counted(REMOVE, key, NULL);
  if (code) return code;
  lock();
  o = find(key);
  if (!o) code = OBJECT_NOT_FOUND;
  else if (!force && o->leased_until > lease_clock()) code = OBJECT_HAS_LEASE;
  else if (!force && o->state != STORED) code = REPLICA_IS_NOT_READY;
  else drop(o);
  unlock();
  return code;
}

API int64_t mooncake_store_remove_by_regex(void *store, const char *pattern, int force) {
  (void)store, (void)pattern, (void)force;
  return INTERNAL_ERROR;
}

API int64_t mooncake_store_remove_all(void *store, int force) {
  int64_t count = 0;
  if (!store) return INTERNAL_ERROR;
  lock();
  for (unsigned i = 0; i < OBJECTS; i++) {
    object *o = &master->objects[i];
    if (o->state == FREE || (!force && o->leased_until > lease_clock())) continue;
    drop(o);
    count++;
  }
  unlock();
  return count;
}

API int mooncake_store_register_buffer(void *store, void *buffer, size_t size) {
  const uint8_t *from = (const uint8_t *)buffer;
  client *c = (client *)store;
  int code;
  range *made;
  if (!store || !buffer || !size) return INTERNAL_ERROR;
  code = counted(REGISTER_BUFFER, NULL, NULL);
  own_lock();
  for (const range *r = c->ranges; r && !code; r = r->next)
    if (from < r->from + r->size && r->from < from + size) code = INVALID_PARAMS;
  if (!code) {
    made = (range *)calloc(1, sizeof *made);
    made->from = from;
    made->size = size;
    made->next = c->ranges;
    c->ranges = made;
    own.ranges++;
  }
  own_unlock();
  return code;
}

API int mooncake_store_unregister_buffer(void *store, void *buffer) {
  int code;
  if (!store) return INTERNAL_ERROR;
  code = counted(UNREGISTER_BUFFER, NULL, NULL);
  own_lock();
  if (!code) {
    range **at = &((client *)store)->ranges, *gone;
    while (*at && (*at)->from != (const uint8_t *)buffer) at = &(*at)->next;
    gone = *at;
    if (gone) *at = gone->next, own.ranges--;
    else code = INVALID_PARAMS;
    free(gone);
  }
  own_unlock();
  return code;
}

/* ---- what the test turns ---- */

/* Empties everything and forgets all plans. */
API void double_reset(void) {
  lock();
  empty(UINT64_MAX, 10000);
  unlock();
  own_lock();
  while (own.plans) {
    plan *gone = own.plans;
    own.plans = gone->next;
    free(gone->part);
    free(gone);
  }
  memset(own.calls, 0, sizeof own.calls);
  own.unhealthy = 0;
  own.gate = -1;
  pthread_cond_broadcast(&own.changed);
  own_unlock();
}

/* The lease clock goes on. */
API void double_clock(uint64_t ms) {
  lock();
  master->clock += ms;
  unlock();
}

API void double_capacity(uint64_t bytes) {
  lock();
  master->capacity = bytes;
  unlock();
}

/* The call of a function that comes `after` so many others takes so long and answers `code`; part: the first one for a
 * key that this is a part of instead. */
static void add_plan(int function, uint64_t after, const char *part, int code, uint64_t ms, int lie) {
  plan *made = (plan *)calloc(1, sizeof *made);
  if (part) made->part = strdup(part);
  made->function = function;
  made->code = code;
  made->milliseconds = ms;
  made->lie = lie;
  own_lock();
  made->at = own.calls[function] + after;
  made->next = own.plans;
  own.plans = made;
  own_unlock();
}

API void double_fail(int function, uint64_t after, const char *part, int code, uint64_t ms) {
  add_plan(function, after, part, code, ms, 0);
}

/* The call of put_from that comes next puts, but says that it failed. */
API void double_lie(int function, int code) { add_plan(function, 0, NULL, code, 0, 1); }

/* Calls of this function wait until another gate is set; -1: none. */
API void double_gate(int function) {
  own_lock();
  own.gate = function;
  pthread_cond_broadcast(&own.changed);
  own_unlock();
}

/* Waits until a call stands at the gate. */
API void double_await(void) {
  own_lock();
  while (!own.waiting) pthread_cond_wait(&own.changed, &own.mutex);
  own_unlock();
}

API uint64_t double_calls(int function) {
  uint64_t calls;
  own_lock();
  calls = own.calls[function];
  own_unlock();
  return calls;
}

API void double_health(int code) {
  own_lock();
  own.unhealthy = code;
  own_unlock();
}

/* What there is: 0: objects, 1: their bytes, 2: clients, 3: registered ranges, 4: objects without a hard pin. */
API uint64_t double_state(int which) {
  uint64_t count = 0;
  own_lock();
  if (which == 2) count = (uint64_t)own.clients;
  else if (which == 3) count = (uint64_t)own.ranges;
  own_unlock();
  if (which == 2 || which == 3) return count;
  lock();
  if (which == 1) count = master->used;
  else
    for (unsigned i = 0; i < OBJECTS; i++)
      count += master->objects[i].state != FREE && (which == 0 || !master->objects[i].pinned);
  unlock();
  return count;
}

/* The bytes and size of an object; NULL: there is none. resize: it gets the size `to`, of the pages that it has. */
API uint8_t *double_object(const char *key, size_t *size, int resize, size_t to) {
  object *o;
  uint8_t *bytes = NULL;
  lock();
  o = find(key);
  if (o) {
    bytes = bytes_of(o);
    if (resize) {
      if (to > o->size) memset(bytes + o->size, 0, to - o->size);
      o->size = to;
      join_again();
    }
    if (size) *size = (size_t)o->size;
  }
  unlock();
  return bytes;
}

/* Takes an object away, whatever holds it. */
API int double_lose(const char *key) {
  object *o;
  int there;
  lock();
  o = find(key);
  there = o != NULL;
  if (there) drop(o);
  unlock();
  return there;
}
