/* What the cases of store_contract.c stand on: bytes that can be checked, two handles on the store under test, calls
 * that look at what every call must keep, the other side (a thread, or this program again in a process of its own), and
 * the audit behind each case. Test-only; include once, after packbuf_transport.h and tap.h. */
#ifndef STORE_CONTRACT_WORLD_H
#define STORE_CONTRACT_WORLD_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "items.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define STORE_SIZE (64 * MIB)
#define STORE_OBJECTS 4096u
#define ZONE (24 * MIB) /* of memory to put from; as much again to get into, and to divide */
#define SLOTS 8u        /* leases that the other side keeps */
#define UNSET ((packbuf_status)0x7ffe)

typedef struct world {
  const char *program, *uri, *transport, *name; /* of the case that runs */
  int local, apart;                             /* apart: B is a process of its own */
  unsigned can;
  packbuf_store *a, *b;
  packbuf_error error;                      /* of the last call of `run` */
  uint8_t *source, *target, *memory;        /* ZONE bytes each, registered with a and b */
  uint64_t taken;                           /* of memory */
  uint64_t used, objects, registrations[2]; /* when the case began */
  int registers;                            /* the case may register */
  int other_registers;                      /* the other side did, in this process */
  int bad, notes;
  pthread_mutex_t lock; /* guards bad, notes and keys */
  char (*keys)[PACKBUF_MAX_KEY + 1];
  size_t key_count, key_room;
} world;

static world w;

/* ---- expectations ---- */

/* One case is one line of TAP; what it expected and did not get is told before that line. */
static int expect_at(int holds, int line, const char *file, const char *what, const char *got, const char *wanted) {
  if (holds) return 1;
  pthread_mutex_lock(&w.lock);
  w.bad = 1;
  if (w.notes++ < 12) {
    tap_note("%s: %s:%d: %s%s%s%s%s", w.name, file, line, what, got ? ": got " : "", got ? got : "",
             wanted ? ", expected " : "", wanted ? wanted : "");
  }
  pthread_mutex_unlock(&w.lock);
  return 0;
}

#define expect(condition) expect_at((condition) ? 1 : 0, __LINE__, __FILE__, #condition, NULL, NULL)
#define expect_status(call, status) expect_status_at(call, status, __LINE__, __FILE__, #call)

static int expect_status_at(packbuf_status got, packbuf_status wanted, int line, const char *file, const char *what) {
  return expect_at(got == wanted, line, file, what, packbuf_status_name(got), packbuf_status_name(wanted));
}

#define expect_number(number, value) \
  expect_number_at((uint64_t)(number), (uint64_t)(value), __LINE__, __FILE__, #number)

static int expect_number_at(uint64_t got, uint64_t wanted, int line, const char *file, const char *what) {
  char a[32], b[32];
  snprintf(a, sizeof a, "%llu", (unsigned long long)got);
  snprintf(b, sizeof b, "%llu", (unsigned long long)wanted);
  return expect_at(got == wanted, line, file, what, a, b);
}

/* ---- time and chance ---- */

static uint64_t milliseconds_since(uint64_t start) { return (packbuf_now() - start) / 1000000u; }

static void sleep_ms(uint64_t ms) {
  struct timespec some;
  some.tv_sec = (time_t)(ms / 1000u);
  some.tv_nsec = (long)(ms % 1000u * 1000000u);
  while (nanosleep(&some, &some) != 0 && errno == EINTR) continue;
}

/* What can be done without waiting for anyone but the network. */
static uint64_t at_once(void) {
  const char *most_ms = getenv("STORE_AT_ONCE_MS");
  if (w.can & PACKBUF_CAN_IN_PLACE) return PACKBUF_NO_WAIT;
  return packbuf_deadline_in(most_ms ? (uint64_t)atoi(most_ms) : 300);
}
static uint64_t in_time(void) { return packbuf_deadline_in(20000); }

static uint64_t mixed(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

typedef struct chance {
  uint64_t state;
} chance;

static uint64_t chance_below(chance *c, uint64_t bound) { return mixed(c->state += 0x9e3779b97f4a7c15u) % bound; }

/* ---- bytes(n, seed) ---- */

static uint64_t word_at(uint64_t seed, uint64_t index) {
  return (seed * 0x9e3779b97f4a7c15u + index + 1) * 0xd6e8feb86659fd93u;
}

static uint8_t byte_at(uint64_t seed, uint64_t position) {
  return (uint8_t)(word_at(seed, position / 8) >> (56 - position % 8 * 8));
}

static void fill_bytes(void *to, uint64_t size, uint64_t seed) {
  uint8_t *bytes = (uint8_t *)to;
  for (uint64_t i = 0; i < size; i += 8) {
    const uint64_t word = word_at(seed, i / 8);
    for (uint64_t k = 0; k < 8 && i + k < size; k++) bytes[i + k] = (uint8_t)(word >> (56 - k * 8));
  }
}

/* Whether bytes are those of bytes(..., seed) from `offset` on. */
static int same_bytes_from(const void *data, uint64_t size, uint64_t seed, uint64_t offset) {
  const uint8_t *bytes = (const uint8_t *)data;
  uint64_t i = 0;
  for (; i < size && (offset + i) % 8; i++)
    if (bytes[i] != byte_at(seed, offset + i)) return 0;
  for (; i + 8 <= size; i += 8) {
    const uint64_t word = word_at(seed, (offset + i) / 8);
    uint64_t got = 0;
    for (unsigned k = 0; k < 8; k++) got = got << 8 | bytes[i + k];
    if (got != word) return 0;
  }
  for (; i < size; i++)
    if (bytes[i] != byte_at(seed, offset + i)) return 0;
  return 1;
}

static int same_bytes(const void *data, uint64_t size, uint64_t seed) { return same_bytes_from(data, size, seed, 0); }

/* Registered memory that is the case's until it ends. */
static uint8_t *take_memory(uint64_t size) {
  uint8_t *taken = w.memory + w.taken;
  w.taken += (size + 63) / 64 * 64;
  if (w.taken <= ZONE) return taken;
  fprintf(stderr, "%s wants too much memory\n", w.name);
  exit(2);
}

/* ---- calls, each looked at ---- */

/* Keys to remove when the case ends. */
static void remember_key(const char *key) {
  pthread_mutex_lock(&w.lock);
  for (size_t i = w.key_count; i-- && i + 300 > w.key_count;)
    if (strcmp(w.keys[i], key) == 0) {
      pthread_mutex_unlock(&w.lock);
      return;
    }
  if (w.key_count == w.key_room) {
    w.key_room = w.key_room ? w.key_room * 2 : 512;
    w.keys = (char(*)[PACKBUF_MAX_KEY + 1]) realloc(w.keys, w.key_room * sizeof *w.keys);
  }
  memcpy(w.keys[w.key_count++], key, strlen(key) + 1);
  pthread_mutex_unlock(&w.lock);
}

/* What was asked of an item, which no call changes. */
static int same_question(const packbuf_item *x, const packbuf_item *y) {
  return x->key == y->key && x->generation == y->generation && x->from == y->from && x->size == y->size &&
         x->slice == y->slice && x->about == y->about && x->into == y->into && x->capacity == y->capacity &&
         x->ranges == y->ranges && x->range_count == y->range_count && x->flags == y->flags && x->ttl_ms == y->ttl_ms &&
         x->account == y->account;
}

static packbuf_status call_batch(packbuf_store *store, packbuf_operation operation, packbuf_item *items, uint64_t count,
                                 uint64_t deadline, packbuf_error *error) {
  switch (operation) {
    case PACKBUF_PUT: return packbuf_batch_put(store, items, count, deadline, error);
    case PACKBUF_GET: return packbuf_batch_get(store, items, count, deadline, error);
    case PACKBUF_STAT: return packbuf_batch_stat(store, items, count, deadline, error);
    default: return packbuf_batch_remove(store, items, count, deadline, error);
  }
}

/* Whether an error names the first item that failed: its key may be cut at the front. */
static int names_item(const packbuf_error *error, const packbuf_item *item, uint64_t index) {
  const size_t size = strlen(item->key), shown = strlen(error->path);
  if (error->code != item->status || error->row != index) return 0;
  if (size < PACKBUF_ERROR_PATH) return strcmp(error->path, item->key) == 0;
  return shown > 3 && shown < PACKBUF_ERROR_PATH && strcmp(error->path + 3, item->key + size - (shown - 3)) == 0;
}

/* A batch, and what all of them keep: every status set, the first failure returned and named, nothing asked changed. */
static packbuf_status run_with(packbuf_store *store, packbuf_operation operation, packbuf_item *items, uint64_t count,
                               uint64_t deadline, packbuf_error *error) {
  packbuf_item *before = (packbuf_item *)malloc((size_t)(count + 1) * sizeof *before);
  uint64_t first = 0;
  packbuf_status status;
  for (uint64_t i = 0; i < count; i++) items[i].status = UNSET;
  memcpy(before, items, (size_t)count * sizeof *before);
  memset(error, 0, sizeof *error);
  status = call_batch(store, operation, items, count, deadline, error);
  for (uint64_t i = 0; i < count; i++) {
    expect(items[i].status != UNSET);
    expect(same_question(&before[i], &items[i]));
    if (operation != PACKBUF_GET || items[i].status || items[i].into) expect(items[i].lease.data == NULL);
    if (operation == PACKBUF_PUT && items[i].status != PACKBUF_INVALID_ARGUMENT) remember_key(items[i].key);
  }
  while (first < count && items[first].status == PACKBUF_OK) first++;
  expect_status(status, first < count ? items[first].status : PACKBUF_OK);
  if (first < count && items[first].key) expect(names_item(error, &items[first], first));
  free(before);
  return status;
}

static packbuf_status run(packbuf_store *store, packbuf_operation operation, packbuf_item *items, uint64_t count,
                          uint64_t deadline) {
  return run_with(store, operation, items, count, deadline, &w.error);
}

/* Puts bytes(size, seed). *stat may be NULL. */
static packbuf_status put_by(packbuf_store *store, const char *key, uint64_t size, uint64_t seed, uint64_t deadline,
                             packbuf_stat *stat) {
  packbuf_item item = item_of(key);
  packbuf_status status;
  fill_bytes(w.source, size, seed);
  item.from = w.source;
  item.size = size;
  status = run(store, PACKBUF_PUT, &item, 1, deadline);
  if (stat) *stat = item.stat;
  return status;
}

/* Puts what must succeed; its generation. */
static uint64_t put(packbuf_store *store, const char *key, uint64_t size, uint64_t seed) {
  packbuf_stat stat;
  memset(&stat, 0, sizeof stat);
  expect_status(put_by(store, key, size, seed, in_time(), &stat), PACKBUF_OK);
  expect_number(stat.length, size);
  return stat.generation;
}

static packbuf_status lease_by(packbuf_store *store, const char *key, uint64_t generation, packbuf_lease *lease) {
  packbuf_item item = item_of(key);
  packbuf_status status;
  item.generation = generation;
  status = run(store, PACKBUF_GET, &item, 1, in_time());
  *lease = item.lease;
  return status;
}

/* The status of a get of a key: into memory and with a lease, which must say the same; content is looked at. */
static packbuf_status get_both(packbuf_store *store, const char *key, uint64_t generation, uint64_t size,
                               uint64_t seed) {
  packbuf_item item = item_of(key);
  packbuf_status status;
  item.generation = generation;
  item.into = w.target;
  item.capacity = ZONE;
  status = run(store, PACKBUF_GET, &item, 1, in_time());
  if (!status) {
    expect_number(item.got, size);
    expect_number(item.stat.length, size);
    expect(same_bytes(w.target, item.got, seed));
  }
  item.into = NULL;
  item.capacity = 0;
  expect_status(run(store, PACKBUF_GET, &item, 1, in_time()), status);
  if (status) return status;
  expect_number(item.got, size);
  expect_number(item.lease.size, size);
  expect((uintptr_t)item.lease.data % 4096 == 0);
  expect(same_bytes(item.lease.data, item.lease.size, seed));
  packbuf_lease_release(&item.lease);
  expect(item.lease.data == NULL);
  return status;
}

#define expect_get(store, key, generation, size, seed) \
  expect_status(get_both(store, key, generation, size, seed), PACKBUF_OK)

static packbuf_status stat_of(packbuf_store *store, const char *key, uint64_t generation, packbuf_stat *stat) {
  packbuf_item item = item_of(key);
  packbuf_status status;
  item.generation = generation;
  status = run(store, PACKBUF_STAT, &item, 1, in_time());
  if (stat) *stat = item.stat;
  return status;
}

/* An engine's own leases, of every get and stat, are for C55 alone to wait for. */
static uint32_t remove_flags(void) { return w.can & PACKBUF_CAN_REMOVE_NOW ? 0 : (uint32_t)PACKBUF_REMOVE_FORCE; }

static packbuf_status remove_by(packbuf_store *store, const char *key, uint64_t generation, uint64_t deadline) {
  packbuf_item item = item_of(key);
  item.flags = remove_flags();
  item.generation = generation;
  return run(store, PACKBUF_REMOVE, &item, 1, deadline);
}

/* NOT_FOUND by get, both ways, and by stat. */
static void expect_absent(packbuf_store *store, const char *key) {
  expect_status(get_both(store, key, 0, 0, 0), PACKBUF_NOT_FOUND);
  expect_status(stat_of(store, key, 0, NULL), PACKBUF_NOT_FOUND);
}

static packbuf_counters counters_of(packbuf_store *store) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  expect_status(packbuf_store_counters(store, &counters, NULL), PACKBUF_OK);
  return counters;
}

static packbuf_store_info info_of(packbuf_store *store) {
  packbuf_store_info info;
  memset(&info, 0, sizeof info);
  expect_status(packbuf_store_describe(store, &info, in_time(), NULL), PACKBUF_OK);
  return info;
}

/* Bytes in use beyond those when the case began; 0 where the store does not know. */
static uint64_t used_more(void) {
  const uint64_t used = info_of(w.a).used;
  return used == UINT64_MAX ? 0 : used - w.used;
}

static int knows_used(void) { return w.used != UINT64_MAX; }

/* Waits until as many bytes are in use: some stores take memory back a moment later. */
static void expect_used(uint64_t bytes) {
  const uint64_t start = packbuf_now();
  if (!knows_used()) return;
  while (used_more() != bytes && milliseconds_since(start) < 1500) sleep_ms(w.local ? 1 : 10);
  expect_number(used_more(), bytes);
}

/* ---- planned faults ---- */

static packbuf_fault fault_of(uint64_t at, packbuf_fault_kind kind, uint64_t argument) {
  packbuf_fault fault;
  memset(&fault, 0, sizeof fault);
  fault.at = at;
  fault.kind = kind;
  fault.argument = argument;
  return fault;
}

static void plan(packbuf_store *store, packbuf_fault fault) {
  expect_status(packbuf_store_inject(store, &fault, 1, NULL), PACKBUF_OK);
}

static void plan_nothing(packbuf_store *store) {
  expect_status(packbuf_store_inject(store, NULL, 0, NULL), PACKBUF_OK);
}

/* ---- the other side ---- */

enum {
  DO_PUT = 1,
  DO_GET,
  DO_LEASE,
  DO_CHECK,
  DO_RELEASE,
  DO_REMOVE,
  DO_READ_LOOP,
  DO_PUT_LOOP,
  DO_CHURN,
  DO_RESERVE,
  DO_GET_LOOP,
  DO_QUIT
};

/* What the other side is to do. */
typedef struct order {
  int what;
  unsigned slot;
  uint64_t generation, seed, size, count;
  uint64_t after_ms, within_ms; /* sleeps before; deadline (UINT64_MAX: none) */
  char key[PACKBUF_MAX_KEY + 1];
} order;

typedef struct answer {
  packbuf_status status;
  int good; /* content and order were right */
  uint64_t generation, length, count, took_ms;
} answer;

typedef struct other_side {
  pid_t pid;
  int pipe;
  pthread_t thread;
  order asked;
  answer answered;
} other_side;

static other_side other;
static packbuf_lease other_leases[SLOTS];
static packbuf_slice other_slice;

static order order_of(int what, const char *key) {
  order o;
  memset(&o, 0, sizeof o);
  o.what = what;
  o.within_ms = 20000;
  memcpy(o.key, key, strlen(key) + 1);
  return o;
}

/* What the writer and the reader of a loop agree on: length and content follow from a number that travels with it. */
static uint64_t loop_length(uint64_t i) { return 1 + i * 2654435761u % 20000u; }

static packbuf_status loop_put(packbuf_store *store, const char *key, uint64_t i, void *memory, packbuf_stat *stat) {
  packbuf_item item = item_of(key);
  packbuf_ref about;
  packbuf_status status;
  memset(&about, 0, sizeof about);
  about.head_checksum = (uint32_t)i;
  fill_bytes(memory, loop_length(i), i);
  item.from = memory;
  item.size = loop_length(i);
  item.about = &about;
  status = packbuf_batch_put(store, &item, 1, in_time(), NULL);
  *stat = item.stat;
  return status;
}

/* Whether what was got is one whole put of a loop. */
static int loop_whole(const packbuf_item *item, const void *bytes) {
  return item->got == loop_length(item->stat.head_checksum) && item->stat.length == item->got &&
         same_bytes(bytes, item->got, item->stat.head_checksum);
}

/* Gets the newest of a key, in turn into memory and with a lease, until it is number `count` - 1. */
static void do_read_loop(packbuf_store *store, const order *o, answer *a) {
  uint8_t *memory = (uint8_t *)malloc(20001);
  uint64_t newest = 0;
  int ended = 0;
  a->good = 1;
  for (uint64_t round = 0; a->good && !ended && a->took_ms < o->within_ms; round++) {
    packbuf_item item = item_of(o->key);
    packbuf_status status;
    if (round % 2) {
      item.into = memory;
      item.capacity = 20001;
    }
    status = packbuf_batch_get(store, &item, 1, in_time(), NULL);
    if (status == PACKBUF_NOT_FOUND && !newest) continue;
    a->status = status;
    a->good = !status && loop_whole(&item, item.into ? item.into : item.lease.data) && item.stat.generation >= newest;
    newest = item.stat.generation;
    ended = !status && item.stat.head_checksum + 1 == o->count;
    packbuf_lease_release(&item.lease);
    a->count++;
  }
  a->generation = newest;
  free(memory);
}

/* Puts o->count times, seeds o->seed, o->seed + 1, ... */
static void do_put_loop(packbuf_store *store, const order *o, answer *a) {
  uint8_t *memory = (uint8_t *)malloc(20001);
  a->good = 1;
  for (uint64_t i = 0; i < o->count && a->good; i++) {
    packbuf_stat stat;
    a->status = loop_put(store, o->key, o->seed + i, memory, &stat);
    a->good = !a->status && stat.generation > a->generation;
    a->generation = stat.generation;
    a->count++;
  }
  free(memory);
}

/* Puts and removes keys of its own, o->count times. */
static void do_churn(packbuf_store *store, const order *o, answer *a) {
  uint8_t byte = 1;
  a->good = 1;
  for (uint64_t i = 0; i < o->count; i++) {
    char key[64];
    packbuf_item item = item_of(key);
    snprintf(key, sizeof key, "%.40s/%u", o->key, (unsigned)(i % 50));
    item.from = &byte;
    item.size = 1;
    a->status = i % 3 == 2 ? packbuf_batch_remove(store, &item, 1, in_time(), NULL)
                           : packbuf_batch_put(store, &item, 1, in_time(), NULL);
    a->good = a->good && (!a->status || a->status == PACKBUF_NOT_FOUND);
  }
  for (unsigned i = 0; i < 50; i++) {
    char key[64];
    packbuf_item item = item_of(key);
    snprintf(key, sizeof key, "%.40s/%u", o->key, i);
    (void)packbuf_batch_remove(store, &item, 1, in_time(), NULL);
  }
  a->status = PACKBUF_OK;
}

/* Gets a key o->count times: right bytes or an error, never others. */
static void do_get_loop(packbuf_store *store, const order *o, answer *a) {
  a->good = 1;
  for (uint64_t i = 0; i < o->count && a->good; i++) {
    packbuf_item item = item_of(o->key);
    a->status = packbuf_batch_get(store, &item, 1, packbuf_deadline_in(o->within_ms), NULL);
    if (!a->status) a->good = same_bytes(item.lease.data, item.lease.size, o->seed) && item.lease.size == o->size;
    packbuf_lease_release(&item.lease);
    a->count++;
  }
}

static void do_one(packbuf_store *store, const order *o, answer *a) {
  const uint64_t deadline = o->within_ms == UINT64_MAX ? PACKBUF_FOREVER
                            : o->within_ms             ? packbuf_deadline_in(o->within_ms)
                                                       : PACKBUF_NO_WAIT;
  packbuf_item item = item_of(o->key);
  uint8_t *memory = NULL;
  item.generation = o->generation;
  if (o->what == DO_PUT) {
    memory = (uint8_t *)malloc((size_t)o->size + 1);
    fill_bytes(memory, o->size, o->seed);
    item.from = memory;
    item.size = o->size;
    a->status = packbuf_batch_put(store, &item, 1, deadline, NULL);
  } else if (o->what == DO_GET) {
    memory = (uint8_t *)malloc((size_t)o->size + 1);
    item.into = memory;
    item.capacity = o->size;
    a->status = packbuf_batch_get(store, &item, 1, deadline, NULL);
    a->good = !a->status && item.got == o->size && same_bytes(memory, o->size, o->seed);
  } else if (o->what == DO_LEASE) {
    a->status = packbuf_batch_get(store, &item, 1, deadline, NULL);
    a->good = !a->status && item.got == o->size && same_bytes(item.lease.data, o->size, o->seed);
    if (!a->status) other_leases[o->slot] = item.lease;
  } else a->status = packbuf_batch_remove(store, &item, 1, deadline, NULL);
  a->generation = item.stat.generation;
  a->length = item.stat.length;
  free(memory);
}

static void do_order(packbuf_store *store, const order *o, answer *a) {
  const uint64_t start = packbuf_now();
  memset(a, 0, sizeof *a);
  if (o->after_ms) sleep_ms(o->after_ms);
  switch (o->what) {
    case DO_CHECK: a->good = same_bytes(other_leases[o->slot].data, o->size, o->seed); break;
    case DO_RELEASE: packbuf_lease_release(&other_leases[o->slot]); break;
    case DO_READ_LOOP: do_read_loop(store, o, a); break;
    case DO_PUT_LOOP: do_put_loop(store, o, a); break;
    case DO_CHURN: do_churn(store, o, a); break;
    case DO_GET_LOOP: do_get_loop(store, o, a); break;
    case DO_RESERVE:
      a->status = packbuf_reserve(store, 0, &o->size, 1, in_time(), &other_slice, NULL);
      if (!a->status) fill_bytes(other_slice.data, o->size / 2, o->seed);
      break;
    default: do_one(store, o, a); break;
  }
  a->took_ms = milliseconds_since(start);
}

static int all_bytes(int fd, void *data, size_t size, int writes) {
  uint8_t *bytes = (uint8_t *)data;
  while (size) {
    const ssize_t some = writes ? send(fd, bytes, size, MSG_NOSIGNAL) : recv(fd, bytes, size, 0);
    if (some < 0 && errno == EINTR) continue;
    if (some <= 0) return 0;
    bytes += some;
    size -= (size_t)some;
  }
  return 1;
}

static packbuf_store_options contract_options(void) {
  packbuf_store_options options = packbuf_default_store_options();
  options.size = STORE_SIZE;
  options.objects = STORE_OBJECTS;
  options.pool_size = STORE_SIZE;
  return options;
}

/* This program as the other side: store_contract --peer URI PIPE. */
static int peer_main(const char *uri, int pipe_end) {
  packbuf_store_options options = contract_options();
  packbuf_store *store = NULL;
  packbuf_status status = packbuf_store_open(uri, &options, &store, NULL);
  order o;
  if (!all_bytes(pipe_end, &status, sizeof status, 1) || status) return 1;
  while (all_bytes(pipe_end, &o, sizeof o, 0) && o.what != DO_QUIT) {
    answer a;
    do_order(store, &o, &a);
    if (!all_bytes(pipe_end, &a, sizeof a, 1)) return 1;
  }
  packbuf_slice_release(&other_slice);
  for (unsigned i = 0; i < SLOTS; i++) packbuf_lease_release(&other_leases[i]);
  return packbuf_store_close(store, in_time(), NULL) != PACKBUF_OK;
}

static void other_start(void) {
  int ends[2];
  char number[16];
  packbuf_status status = PACKBUF_SYSTEM;
  if (!w.apart || other.pid) return;
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return;
  snprintf(number, sizeof number, "%d", ends[1]);
  fflush(stdout);
  other.pid = fork();
  if (other.pid == 0) {
    (void)close(ends[0]);
    execl(w.program, w.program, "--peer", w.uri, number, (char *)NULL);
    _exit(127);
  }
  (void)close(ends[1]);
  other.pipe = ends[0];
  expect(all_bytes(other.pipe, &status, sizeof status, 0));
  expect_status(status, PACKBUF_OK);
}

/* Its exit status. */
static int other_wait(void) {
  int status = -1;
  if (!other.pid) return 0;
  (void)close(other.pipe);
  (void)waitpid(other.pid, &status, 0);
  other.pid = 0;
  return status;
}

static void other_kill(void) {
  if (other.pid) (void)kill(other.pid, SIGKILL);
  (void)other_wait();
}

static void other_end_process(void) {
  order o = order_of(DO_QUIT, "");
  if (!other.pid) return;
  (void)all_bytes(other.pipe, &o, sizeof o, 1);
  expect(other_wait() == 0);
}

static void *other_thread(void *context) {
  (void)context;
  do_order(w.b, &other.asked, &other.answered);
  return NULL;
}

/* Has the other side begin; other_answer waits for it. */
static void other_begin(order o) {
  if (o.what == DO_PUT || o.what == DO_PUT_LOOP) remember_key(o.key);
  if (w.apart) {
    expect(all_bytes(other.pipe, &o, sizeof o, 1));
    return;
  }
  other.asked = o;
  w.other_registers = strcmp(w.transport, "verbs") == 0; /* its memory is its own, and new each time */
  expect(pthread_create(&other.thread, NULL, other_thread, NULL) == 0);
}

static answer other_answer(void) {
  answer a;
  memset(&a, 0, sizeof a);
  a.status = PACKBUF_SYSTEM;
  if (w.apart) {
    expect(all_bytes(other.pipe, &a, sizeof a, 0));
    return a;
  }
  (void)pthread_join(other.thread, NULL);
  return other.answered;
}

static answer other_does(order o) {
  other_begin(o);
  return other_answer();
}

static answer other_puts(const char *key, uint64_t size, uint64_t seed) {
  order o = order_of(DO_PUT, key);
  o.size = size;
  o.seed = seed;
  return other_does(o);
}

static answer other_leases_it(const char *key, uint64_t generation, uint64_t size, uint64_t seed, unsigned slot) {
  order o = order_of(DO_LEASE, key);
  o.generation = generation;
  o.size = size;
  o.seed = seed;
  o.slot = slot;
  return other_does(o);
}

static int other_still_sees(uint64_t size, uint64_t seed, unsigned slot) {
  order o = order_of(DO_CHECK, "");
  o.size = size;
  o.seed = seed;
  o.slot = slot;
  return other_does(o).good;
}

static void other_releases(unsigned slot) {
  order o = order_of(DO_RELEASE, "");
  o.slot = slot;
  (void)other_does(o);
}

/* ---- handles, and the audit ---- */

/* A further handle on the store; options may be NULL. */
static packbuf_status open_more(const packbuf_store_options *wanted, packbuf_store **store) {
  packbuf_store_options options = wanted ? *wanted : contract_options();
  if (w.local) options.beside = w.a;
  return packbuf_store_open(w.uri, &options, store, &w.error);
}

static int open_handles(void) {
  packbuf_store_options options = contract_options();
  w.a = w.b = NULL;
  if (!expect_status(packbuf_store_open(w.uri, &options, &w.a, &w.error), PACKBUF_OK)) {
    tap_note("%s: %s", w.uri, w.error.message);
    return 0;
  }
  if (!expect_status(open_more(NULL, &w.b), PACKBUF_OK)) return 0;
  expect_status(packbuf_register(w.a, w.source, 3 * ZONE, &w.error), PACKBUF_OK);
  expect_status(packbuf_register(w.b, w.source, 3 * ZONE, &w.error), PACKBUF_OK);
  return 1;
}

static void close_handles(void) {
  for (unsigned i = 0; i < 2; i++) {
    packbuf_store *store = i ? w.a : w.b;
    if (!store) continue;
    expect_status(packbuf_unregister(store, w.source, 3 * ZONE, NULL), PACKBUF_OK);
    if (expect_status(packbuf_store_close(store, in_time(), NULL), PACKBUF_OK)) continue;
    tap_ok(0, "%s: nothing is out when it ends", w.name); /* what is used beyond here could be gone */
    exit(tap_plan_done());
  }
  w.a = w.b = NULL;
}

static void remove_remembered(void) {
  for (size_t i = 0; i < w.key_count; i++) {
    packbuf_item item = item_of(w.keys[i]);
    packbuf_status status;
    item.flags = remove_flags();
    status = packbuf_batch_remove(w.a, &item, 1, packbuf_deadline_in(5000), NULL);
    if (status != PACKBUF_OK && status != PACKBUF_NOT_FOUND) expect_status(status, PACKBUF_OK);
  }
  w.key_count = 0;
}

/* Leases, slices and memory of one handle. */
static void audit_handle(packbuf_store *store, uint64_t registrations) {
  const packbuf_counters counters = counters_of(store);
  expect_number(counters.leases, 0);
  expect_number(counters.slices, 0);
  expect_number(counters.pool_used, 0);
  if (registrations != UINT64_MAX && !w.registers) expect_number(counters.registrations, registrations);
}

/* A case that waits for ever ends the program, by its name. */
static void does_not_end(int signal_number) {
  static const char text[] = "Bail out! no end: ";
  (void)signal_number;
  if (write(1, text, sizeof text - 1) > 0 && write(1, w.name, strlen(w.name)) > 0) (void)!write(1, "\n", 1);
  _exit(2);
}

static int begin_case(const char *name, int apart) {
  (void)signal(SIGALRM, does_not_end);
  (void)alarm(150);
  w.name = name;
  w.apart = apart;
  w.bad = w.notes = w.registers = 0;
  w.taken = 0;
  if (!open_handles()) return 0;
  w.used = info_of(w.a).used;
  w.objects = info_of(w.a).objects;
  w.registrations[0] = counters_of(w.a).registrations;
  w.registrations[1] = counters_of(w.b).registrations;
  w.other_registers = 0;
  other_start();
  return !w.bad;
}

static void end_case(void) {
  uint64_t left = 0;
  other_end_process();
  if (!w.a || !w.b) return;
  remove_remembered();
  expect_status(packbuf_store_collect(w.a, in_time(), &left, NULL), PACKBUF_OK);
  expect_used(0);
  expect_number(info_of(w.a).objects, w.objects);
  audit_handle(w.a, w.registrations[0]);
  audit_handle(w.b, w.other_registers ? UINT64_MAX : w.registrations[1]);
  close_handles();
}

#endif
