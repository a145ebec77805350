/* A campaign: writers and readers of a store, and its server, are killed and stopped at random; then no key may be
 * lost, torn, stale or back again, and nothing may leak. What each process has done stands in a journal that all of
 * them map. kills URI [ROUNDS [SEED]]      local: | shm: | tcp://127.0.0.1:0 | verbs://HOST:0   (servers are started
 * here) A round is one process killed or stopped; in `local:`, which has one process, one planned fault.
 * May use: packbuf_transport.h (the public part alone), tap.h. Must not know: how a store does it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../transport/packbuf_transport.h"
#include "tap.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "items.h"

enum {
  WORKERS = 4,
  STAYING = 8, /* shared keys that nobody removes: never lost */
  GOING = 8,   /* shared keys that anybody removes: never back again */
  PRIVATE = 4, /* keys of each worker alone: what is there is exactly known */
  KEYS = STAYING + GOING + WORKERS * PRIVATE,
  NUMBERS = 1 << 20, /* puts that are remembered */
  HELD = 6,          /* leases that a worker keeps */
  ROWS = 200,        /* of a batch */
  LONGEST = 96 * 1024,
  STORE_SIZE = 768 << 10, /* little: memory is always wanted */
  NOTES = 12
};

typedef uint64_t shared; /* of several processes: atomic */
#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_SEQ_CST)
#define STORE(word, value) __atomic_store_n(&(word), value, __ATOMIC_SEQ_CST)
#define ADD(word, value) __atomic_fetch_add(&(word), value, __ATOMIC_SEQ_CST)

/* What one worker knows of one of its own keys. */
typedef struct own_key {
  shared acked, generation, before; /* number of the put that is there (0: none), its generation and the one before */
  shared pending, removing;         /* number of a put, and a removal, that may have happened or not */
  shared maybe, maybe_removed;      /* so of an earlier one: a server may still come to it */
} own_key;

typedef struct journal {
  shared ticks, numbers;
  struct {
    shared number, tick; /* when the put was known to be done; 0: not yet */
  } done[NUMBERS];
  struct {
    shared superseded, removed; /* when the latest put, and removal, that are done began */
    shared there;               /* something was put */
  } keys[KEYS];
  own_key own[WORKERS][PRIVATE];
  shared torn, stale, lost, back, failed, leaked;
  shared puts, gets, removes, batches, cut, staled, full, away;
  shared server_up, server_leases, server_slices, server_looks, stop;
  shared notes;
  char note[NOTES][160], server_uri[300];
} journal;

static journal *j;
static char scheme[8];            /* of the store under test */
static char uri[300];             /* that workers open */
static char below[64];            /* the shm store that is served, or is the one under test */
static int strict;                /* what was not acknowledged happened before the process died, or never */
static packbuf_store *shared_one; /* local: the handle that all threads use */

/* ---- chance, time, notes ---- */

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state * 0x2545F4914F6CDD1Du;
}

static void pause_us(uint64_t us) {
  struct timespec time;
  time.tv_sec = (time_t)(us / 1000000);
  time.tv_nsec = (long)(us % 1000000 * 1000);
  nanosleep(&time, NULL);
}

static uint64_t tick(void) { return ADD(j->ticks, 1) + 1; }

static void raise_to(shared *word, uint64_t value) {
  uint64_t old = LOAD(*word);
  while (old < value && !__atomic_compare_exchange_n(word, &old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    continue;
}

/* Something that must not be; told at the end. */
static void wrong(shared *count, const char *what, const char *key, uint64_t a, uint64_t b) {
  uint64_t at;
  ADD(*count, 1);
  at = ADD(j->notes, 1);
  if (at < NOTES)
    snprintf(j->note[at], sizeof j->note[at], "%s: %.60s: %llu %llu", what, key, (unsigned long long)a,
             (unsigned long long)b);
}

/* ---- contents: a put's number, its key and length, and words that follow from the number ---- */

typedef struct front {
  uint64_t number, key, size;
} front;

static uint64_t word_of(uint64_t number, uint64_t i) { return (number + i) * 0x9E3779B97F4A7C15u; }

static void content_fill(void *to, uint64_t number, uint64_t key, uint64_t size) {
  front f;
  uint8_t *bytes = (uint8_t *)to;
  f.number = number;
  f.key = key;
  f.size = size;
  memcpy(bytes, &f, sizeof f);
  for (uint64_t at = sizeof f; at < size; at += 8) {
    const uint64_t word = word_of(number, at);
    memcpy(bytes + at, &word, size - at < 8 ? (size_t)(size - at) : 8);
  }
}

/* The number of the put whose bytes these are, all of them; 0: they are torn. */
static uint64_t content_number(const void *from, uint64_t size, uint64_t key) {
  const uint8_t *bytes = (const uint8_t *)from;
  front f;
  if (size < sizeof f) return 0;
  memcpy(&f, bytes, sizeof f);
  if (f.key != key || f.size != size) return 0;
  for (uint64_t at = sizeof f; at < size; at += 8) {
    const uint64_t word = word_of(f.number, at);
    if (memcmp(bytes + at, &word, size - at < 8 ? (size_t)(size - at) : 8) != 0) return 0;
  }
  return f.number;
}

/* ---- what is known ---- */

static void key_name(unsigned key, char name[16]) {
  if (key < STAYING) snprintf(name, 16, "stay%u", key);
  else if (key < STAYING + GOING) snprintf(name, 16, "go%u", key - STAYING);
  else snprintf(name, 16, "own%u", key - STAYING - GOING);
}

static own_key *own_of(unsigned key) {
  const unsigned i = key - STAYING - GOING;
  return key < STAYING + GOING ? NULL : &j->own[i / PRIVATE][i % PRIVATE];
}

/* A put is done at this tick: it was acknowledged, or seen. */
static void now_done(uint64_t number, uint64_t at) {
  uint64_t none = 0;
  if (LOAD(j->done[number % NUMBERS].number) == number)
    __atomic_compare_exchange_n(&j->done[number % NUMBERS].tick, &none, at, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static uint64_t done_at(uint64_t number) {
  const uint64_t at = LOAD(j->done[number % NUMBERS].tick);
  return LOAD(j->done[number % NUMBERS].number) == number ? at : 0;
}

static uint64_t new_number(void) {
  const uint64_t number = ADD(j->numbers, 1) + 1;
  STORE(j->done[number % NUMBERS].tick, 0);
  STORE(j->done[number % NUMBERS].number, number);
  return number;
}

/* What a get that began now must not answer. */
typedef struct known {
  uint64_t superseded, removed, there;
} known;

static known known_of(unsigned key) {
  known k;
  k.superseded = LOAD(j->keys[key].superseded);
  k.removed = LOAD(j->keys[key].removed);
  k.there = LOAD(j->keys[key].there);
  return k;
}

/* The answer of a get: the put of that number, or (0) nothing, by the rules of a key that others work on as well: what
 * was done before a put or a removal began that was done itself before the get began, is not to be seen. */
static void look_shared(unsigned key, const char *name, uint64_t number, known k) {
  const uint64_t since = number ? done_at(number) : 0;
  if (!number && key < STAYING && k.there) wrong(&j->lost, "lost", name, k.there, 0);
  if (since && since < k.superseded) wrong(&j->stale, "stale", name, since, k.superseded);
  if (since && since < k.removed) wrong(&j->back, "back again", name, since, k.removed);
  if (number) now_done(number, tick());
}

/* And of a worker's own key, by what it did. */
static void look_own(own_key *own, const char *name, uint64_t number) {
  const uint64_t acked = LOAD(own->acked);
  int good;
  if (number) good = number == acked || number == LOAD(own->pending) || (LOAD(own->maybe) && !done_at(number));
  else good = !acked || LOAD(own->removing) || LOAD(own->maybe_removed);
  if (!good) wrong(number ? &j->stale : &j->lost, "not what was put", name, number, acked);
}

/* ---- one worker ---- */

typedef struct worker {
  unsigned slot;
  uint64_t random;
  packbuf_store *store;
  uint8_t *bytes, *into;
  struct {
    packbuf_lease lease;
    unsigned key;
    uint64_t number;
  } held[HELD];
  unsigned holds;
  uint64_t batches;
} worker;

static unsigned below_of(worker *w, unsigned bound) { return (unsigned)(next_random(&w->random) >> 20) % bound; }

static uint64_t deadline_of(worker *w) {
  if (!strict && !shared_one) return packbuf_deadline_in(5000);
  return below_of(w, 8) ? PACKBUF_NO_WAIT : packbuf_deadline_in(2);
}

/* Statuses that a store may give whose others are killed, and when its server is. */
static int may_be(packbuf_status status, const char *what, const char *name) {
  char line[64];
  switch (status) {
    case PACKBUF_OK:
    case PACKBUF_NOT_FOUND:
    case PACKBUF_STALE:
    case PACKBUF_LEASED:
    case PACKBUF_CANCELLED: return 1;
    case PACKBUF_FULL: ADD(j->full, 1); return 1;
    case PACKBUF_TIMEOUT: return 1;
    case PACKBUF_DISCONNECTED:
      ADD(j->away, 1);
      if (strcmp(scheme, "shm") != 0) return 1; /* a server that was killed; a writer that is meant to seem so */
      break;
    case PACKBUF_SYSTEM: /* what is planned */
    case PACKBUF_SHORT_READ:
      if (shared_one) return 1;
      break;
    default: break;
  }
  snprintf(line, sizeof line, "%s: %s", what, packbuf_status_name(status));
  wrong(&j->failed, line, name, 0, 0);
  return 0;
}

/* A batch of one item: blocking, or handed over and perhaps cancelled on the way. */
static packbuf_status run_item(worker *w, packbuf_operation operation, packbuf_item *item) {
  const uint64_t deadline = deadline_of(w);
  packbuf_completion completion;
  uint64_t ticket, count = 0;
  if (below_of(w, 32) == 0 && !shared_one) { /* of a handle of its own: others would poll what this one submits */
    if (packbuf_submit(w->store, operation, item, 1, packbuf_deadline_in(5000), NULL, &ticket, NULL)) abort();
    if (below_of(w, 2)) (void)packbuf_cancel(w->store, ticket, 0, NULL);
    while (packbuf_poll(w->store, &completion, 1, &count, PACKBUF_FOREVER, NULL) != PACKBUF_OK || !count) continue;
    return item->status;
  }
  switch (operation) {
    case PACKBUF_PUT: return packbuf_batch_put(w->store, item, 1, deadline, NULL);
    case PACKBUF_GET: return packbuf_batch_get(w->store, item, 1, deadline, NULL);
    default: return packbuf_batch_remove(w->store, item, 1, deadline, NULL);
  }
}

/* What an operation on its own key that was not acknowledged leaves open. */
static void left_open(own_key *own, packbuf_status status, int removal) {
  const int never = strict || status == PACKBUF_FULL || status == PACKBUF_CANCELLED;
  if (!never) STORE(*(removal ? &own->maybe_removed : &own->maybe), 1);
  STORE(*(removal ? &own->removing : &own->pending), 0);
}

static uint64_t some_size(worker *w) {
  const unsigned kind = below_of(w, 16);
  const uint64_t most = kind == 0 ? LONGEST : kind < 4 ? 20000 : 3000;
  return sizeof(front) + below_of(w, (unsigned)(most - sizeof(front)));
}

static void do_put(worker *w, unsigned key) {
  char name[16];
  own_key *own = own_of(key);
  const uint64_t number = new_number(), size = some_size(w), begin = tick();
  packbuf_slice slice;
  packbuf_status status = PACKBUF_OK;
  packbuf_item item;
  key_name(key, name);
  item = item_of(name);
  memset(&slice, 0, sizeof slice);
  if (below_of(w, 3) == 0) status = packbuf_reserve(w->store, 0, &size, 1, deadline_of(w), &slice, NULL);
  if (status) {
    (void)may_be(status, "reserve", name);
    return;
  }
  item.from = slice.data ? slice.data : w->bytes;
  item.slice = slice.data ? &slice : NULL;
  item.size = size;
  if (key >= STAYING && key < STAYING + GOING) item.flags = below_of(w, 4) ? 0u : (uint32_t)PACKBUF_PUT_EVICTABLE;
  content_fill(slice.data ? slice.data : (void *)w->bytes, number, key, size);
  if (own) STORE(own->pending, number);
  status = run_item(w, PACKBUF_PUT, &item);
  packbuf_slice_release(&slice);
  if (status == PACKBUF_OK) {
    now_done(number, tick());
    raise_to(&j->keys[key].superseded, begin);
    STORE(j->keys[key].there, 1);
    if (own) {
      STORE(own->before, LOAD(own->generation));
      STORE(own->acked, number);
      STORE(own->generation, item.stat.generation);
      STORE(own->pending, 0);
    }
    ADD(j->puts, 1);
    return;
  }
  (void)may_be(status, "put", name);
  if (own) left_open(own, status, 0);
}

static void let_go(worker *w, unsigned i) {
  char name[16];
  key_name(w->held[i].key, name);
  if (content_number(w->held[i].lease.data, w->held[i].lease.size, w->held[i].key) != w->held[i].number)
    wrong(&j->torn, "a lease changed", name, w->held[i].number, 0);
  packbuf_lease_release(&w->held[i].lease);
  w->held[i] = w->held[--w->holds];
}

/* Gets the newest, in one of three ways. */
static void do_get(worker *w, unsigned key) {
  const known k = known_of(key);
  packbuf_range ranges[2];
  packbuf_item item;
  packbuf_status status;
  uint64_t number = 0;
  char name[16];
  const unsigned way = below_of(w, 4);
  key_name(key, name);
  item = item_of(name);
  if (way == 0) item.into = w->into, item.capacity = LONGEST;
  if (way == 1) {
    ranges[0].offset = 0;
    ranges[0].length = sizeof(front);
    ranges[1].offset = ranges[1].length = 8;
    item.ranges = ranges;
    item.range_count = 2;
  }
  status = run_item(w, PACKBUF_GET, &item);
  ADD(j->gets, 1);
  if (status && status != PACKBUF_NOT_FOUND) {
    (void)may_be(status, "get", name);
    return;
  }
  if (status == PACKBUF_OK && way == 1) {
    front f;
    uint64_t second;
    memcpy(&f, item.lease.data, sizeof f);
    memcpy(&second, (const uint8_t *)item.lease.data + sizeof f, 8);
    number = second == f.key && f.key == key && f.size == item.stat.length && item.got == sizeof f + 8 ? f.number : 0;
    ADD(j->cut, 1);
  } else if (status == PACKBUF_OK) {
    number = content_number(item.into ? item.into : item.lease.data, item.got, key);
  }
  if (status == PACKBUF_OK && !number) wrong(&j->torn, "torn", name, item.stat.generation, item.got);
  else if (own_of(key)) look_own(own_of(key), name, number);
  else look_shared(key, name, number, k);
  if (item.lease.data && way > 1 && number && below_of(w, 3) == 0) {
    if (w->holds == HELD) let_go(w, below_of(w, HELD));
    w->held[w->holds].lease = item.lease;
    w->held[w->holds].key = key;
    w->held[w->holds++].number = number;
  } else packbuf_lease_release(&item.lease);
}

/* The generation before the one that is there. */
static void do_get_old(worker *w, unsigned key) {
  own_key *own = own_of(key);
  packbuf_item item;
  packbuf_status status;
  char name[16];
  if (!LOAD(own->acked) || !LOAD(own->before) || LOAD(own->before) == LOAD(own->generation)) return;
  key_name(key, name);
  item = item_of(name);
  item.generation = LOAD(own->before);
  status = run_item(w, PACKBUF_GET, &item);
  packbuf_lease_release(&item.lease);
  if (status == PACKBUF_OK) wrong(&j->stale, "an old ref is served", name, item.generation, LOAD(own->generation));
  else if (may_be(status, "old", name) && status == PACKBUF_STALE) ADD(j->staled, 1);
}

static void do_remove(worker *w, unsigned key) {
  const uint64_t begin = tick();
  own_key *own = own_of(key);
  packbuf_item item;
  packbuf_status status;
  char name[16];
  key_name(key, name);
  item = item_of(name);
  if (own) STORE(own->removing, 1);
  status = run_item(w, PACKBUF_REMOVE, &item);
  if (status == PACKBUF_OK || status == PACKBUF_LEASED) {
    raise_to(&j->keys[key].removed, begin);
    ADD(j->removes, 1);
  }
  if (own && (status == PACKBUF_OK || status == PACKBUF_LEASED || status == PACKBUF_NOT_FOUND)) {
    if (status == PACKBUF_NOT_FOUND) look_own(own, name, 0);
    STORE(own->acked, 0);
    STORE(own->removing, 0);
    return;
  }
  if (status && status != PACKBUF_LEASED) (void)may_be(status, "remove", name);
  if (own) left_open(own, status, 1);
}

/* ---- whole batches: of two fields, whose numbers follow a seed ---- */

static packbuf_status batch_put(worker *w, const char *key, const packbuf_ref *to, int64_t seed, packbuf_ref *ref) {
  static const uint64_t shape[1] = {ROWS};
  int64_t numbers[2][ROWS];
  packbuf_put_options putting;
  packbuf_status status;
  packbuf_arena arena;
  packbuf_batch batch;
  memset(&putting, 0, sizeof putting);
  putting.deadline = deadline_of(w);
  packbuf_arena_init(&arena, NULL);
  status = packbuf_batch_init(&batch, ROWS, &arena, NULL, NULL);
  for (unsigned f = 0; f < 2 && !status; f++) {
    packbuf_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    for (int64_t i = 0; i < ROWS; i++) numbers[f][i] = seed * 1000003 + (int64_t)f + i * i;
    tensor.data = numbers[f];
    tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
    tensor.rank = 1;
    tensor.shape = shape;
    status = packbuf_add_tensor(&batch, f ? "m" : "n", &tensor, NULL, NULL);
  }
  if (status) abort();
  status = to ? packbuf_append(w->store, to, &batch, PACKBUF_APPENDS_ROWS, &putting, ref, NULL)
              : packbuf_put(w->store, key, &batch, &putting, ref, NULL);
  packbuf_arena_free(&arena);
  return status;
}

/* Whether rows first.. of a fragment are those of the seed. */
static int batch_is(const packbuf_view *view, int64_t seed, unsigned field, uint64_t first, uint64_t count) {
  packbuf_node node;
  packbuf_column column;
  int64_t numbers[ROWS];
  if (packbuf_find(view, 0, field ? "m" : "n", &node, NULL) || packbuf_open_column(view, node.index, &column, NULL) ||
      packbuf_copy_elements(view, &column.data, first, count, numbers, sizeof numbers, NULL))
    return 0;
  for (uint64_t i = 0; i < count; i++)
    if (numbers[i] != seed * 1000003 + (int64_t)field + (int64_t)((first + i) * (first + i))) return 0;
  return 1;
}

/* Put, read, appended to, read whole and in part, removed: and then gone. */
static void do_batch(worker *w) {
  const int64_t seed = (int64_t)(new_number() % 1000000);
  packbuf_get_options getting;
  packbuf_object object;
  packbuf_ref refs[3];
  packbuf_status status;
  unsigned parts = 1;
  char key[40];
  snprintf(key, sizeof key, "batch%u/%llu", w->slot, (unsigned long long)(w->batches++ % 3));
  memset(&getting, 0, sizeof getting);
  getting.deadline = packbuf_deadline_in(5000);
  getting.level = PACKBUF_LEVEL_FULL;
  status = batch_put(w, key, NULL, seed, &refs[0]);
  while (!status && parts < 3 && below_of(w, 2)) {
    status = batch_put(w, key, &refs[parts - 1], seed + parts, &refs[parts]);
    if (!status) parts++;
  }
  if (status) (void)may_be(status, "batch", key);
  if (parts == 1 && status) return;
  status = packbuf_get(w->store, &refs[parts - 1], &getting, &object, NULL);
  if (!status) {
    for (unsigned i = 0; i < parts; i++)
      if (object.view_count != parts || !batch_is(&object.views[i], seed + i, 0, 0, ROWS) ||
          !batch_is(&object.views[i], seed + i, 1, 0, ROWS))
        wrong(&j->torn, "a batch", key, i, object.view_count);
    packbuf_object_release(&object);
  } else if (may_be(status, "get of a batch", key) && (status == PACKBUF_NOT_FOUND || status == PACKBUF_STALE)) {
    wrong(&j->lost, "a batch is lost", key, refs[parts - 1].generation, parts);
  }
  {
    static const char *const pattern = "m";
    packbuf_wanted wanted;
    memset(&wanted, 0, sizeof wanted);
    wanted.patterns = &pattern;
    wanted.pattern_count = 1;
    wanted.rows = packbuf_rows_range(50, 80, 1);
    wanted.flags = PACKBUF_RANGES_CHUNKS;
    status = packbuf_get_select(w->store, &refs[0], &wanted, &getting, &object, NULL);
    if (!status && !batch_is(object.views, seed, 1, 50, 30)) wrong(&j->torn, "a part of a batch", key, 0, 0);
    if (status) (void)may_be(status, "select", key);
    packbuf_object_release(&object);
  }
  status = packbuf_remove(w->store, &refs[parts - 1], packbuf_deadline_in(5000), NULL);
  if (!may_be(status, "remove of a batch", key) || (status && status != PACKBUF_LEASED)) return;
  status = packbuf_get(w->store, &refs[parts - 1], &getting, &object, NULL);
  if (!status) wrong(&j->back, "a removed batch", key, refs[parts - 1].generation, 0);
  packbuf_object_release(&object);
  ADD(j->batches, 1);
}

static void work_once(worker *w) {
  const unsigned what = below_of(w, 32);
  const unsigned key = below_of(w, STAYING + GOING), own = STAYING + GOING + w->slot * PRIVATE + below_of(w, PRIVATE);
  if (what < 5) do_put(w, key);
  else if (what < 9) do_put(w, own);
  else if (what < 18) do_get(w, key);
  else if (what < 23) do_get(w, own);
  else if (what < 25) do_get_old(w, own);
  else if (what < 27) do_remove(w, STAYING + key % GOING);
  else if (what < 29) do_remove(w, own);
  else if (what < 31) {
    if (w->holds) let_go(w, below_of(w, w->holds));
  } else do_batch(w);
}

static packbuf_store *opened(uint64_t within_ms) {
  packbuf_store_options options = packbuf_default_store_options();
  const uint64_t end = packbuf_deadline_in(within_ms);
  packbuf_store *store = NULL;
  packbuf_error error;
  packbuf_status status;
  options.size = options.pool_size = STORE_SIZE;
  options.objects = 256;
  options.sessions = 16;
  options.connect_ms = 1000;
  options.name = "kills";
  do {
    status = packbuf_store_open(uri, &options, &store, &error);
    if (status == PACKBUF_OK) return store;
    pause_us(2000);
  } while (packbuf_now() < end);
  wrong(&j->failed, "cannot open", packbuf_status_name(status), error.offset, 0);
  return NULL;
}

static void worker_start(worker *w, unsigned slot, uint64_t random) {
  memset(w, 0, sizeof *w);
  w->slot = slot;
  w->random = random | 1;
  w->bytes = (uint8_t *)malloc(LONGEST);
  w->into = (uint8_t *)malloc(LONGEST);
  w->store = shared_one ? shared_one : opened(20000);
  if (!w->bytes || !w->into || !w->store) abort();
}

static pid_t child_worker(unsigned slot, uint64_t random) {
  const pid_t parent = getpid(), child = fork();
  worker w;
  if (child != 0) return child;
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  worker_start(&w, slot, random);
  for (;;) work_once(&w);
}

static void *thread_worker(void *context) {
  worker *w = (worker *)context;
  while (!LOAD(j->stop)) work_once(w);
  while (w->holds) let_go(w, 0);
  return NULL;
}

/* ---- a server of its own, on the shm store ---- */

static void serve(const char *at) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_server_options serving;
  packbuf_counters counters;
  packbuf_store *store = NULL;
  packbuf_server *server = NULL;
  char under[80];
  snprintf(under, sizeof under, "%s?must_exist=1", below);
  memset(&serving, 0, sizeof serving);
  serving.lease_ms = 1000;
  options.name = "server";
  if (packbuf_store_open(under, &options, &store, NULL)) _exit(1);
  while (packbuf_server_open(store, at, &serving, &server, NULL)) pause_us(2000); /* the port is the dead one's still */
  snprintf(uri, sizeof uri, "%s", packbuf_server_uri(server));
  for (int i = 0; i < 1000000000; i++) {
    if (packbuf_store_counters(store, &counters, NULL) == PACKBUF_OK) {
      STORE(j->server_leases, counters.leases);
      STORE(j->server_slices, counters.slices);
      ADD(j->server_looks, 1);
    }
    if (i == 0) {
      memcpy(j->server_uri, uri, sizeof uri); /* with its port */
      STORE(j->server_up, 1);
    }
    pause_us(2000);
  }
}

static pid_t server_start(const char *at) {
  const pid_t parent = getpid();
  pid_t child;
  STORE(j->server_up, 0);
  child = fork();
  if (child == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) serve(at);
    _exit(1);
  }
  for (int i = 0; i < 10000 && !LOAD(j->server_up); i++) pause_us(1000);
  return child;
}

/* ---- the campaign ---- */

typedef struct campaign {
  uint64_t random, kills, stops, server_kills, quiet;
  pid_t workers[WORKERS], server;
  packbuf_store *store, *under; /* as the workers have it; the shm store itself */
} campaign;

static void reap(pid_t *child) {
  int status;
  if (*child <= 0) return;
  (void)kill(*child, SIGKILL);
  if (waitpid(*child, &status, 0) == *child && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
    wrong(&j->failed, "a process ended by itself", "", (uint64_t)(unsigned)status, 0);
  *child = 0;
}

/* What is there under one key, which nobody works on: the number of its put, 0: none. */
static uint64_t number_at(campaign *c, unsigned key) {
  packbuf_status status = PACKBUF_DISCONNECTED;
  packbuf_item item;
  uint64_t number = 0;
  char name[16];
  key_name(key, name);
  item = item_of(name);
  for (int i = 0; i < 100 && (status == PACKBUF_DISCONNECTED || status == PACKBUF_TIMEOUT); i++)
    status = packbuf_batch_get(c->store, &item, 1, packbuf_deadline_in(5000), NULL);
  if (status == PACKBUF_OK) {
    number = content_number(item.lease.data, item.got, key);
    if (!number) wrong(&j->torn, "torn", name, item.stat.generation, item.got);
  } else if (status != PACKBUF_NOT_FOUND) wrong(&j->failed, packbuf_status_name(status), name, 0, 0);
  packbuf_lease_release(&item.lease);
  return number;
}

/* The own keys of a worker that was killed: as it left them. `quiet`: no server comes to anything of it any more. */
static void check_own(campaign *c, unsigned slot, int quiet) {
  for (unsigned i = 0; i < PRIVATE; i++) {
    own_key *own = &j->own[slot][i];
    const unsigned key = STAYING + GOING + slot * PRIVATE + i;
    const uint64_t number = number_at(c, key);
    char name[16];
    key_name(key, name);
    look_own(own, name, number);
    if (!strict && own->pending) own->maybe = 1;
    if (!strict && own->removing) own->maybe_removed = 1;
    if (own->acked != number) own->generation = own->before = 0; /* of another put */
    if (strict || quiet || number) own->acked = number;
    if (quiet) own->maybe = own->maybe_removed = 0;
    own->pending = own->removing = 0;
  }
}

/* All that is listed goes; of batches that were being appended to parts are there that no manifest lists. */
static uint64_t list_and_remove(campaign *c, const char *prefix, int remove) {
  packbuf_listed listed[32];
  uint64_t cursor = 0, count = 0, all = 0;
  do {
    if (packbuf_store_list(c->under, prefix, &cursor, listed, 32, &count, PACKBUF_FOREVER, NULL)) break;
    for (uint64_t i = 0; i < count; i++) {
      packbuf_item item = item_of(listed[i].key);
      if (listed[i].stat.kind != PACKBUF_OBJECT_BYTES) {
        packbuf_view view;
        if (packbuf_batch_get(c->under, &item, 1, PACKBUF_NO_WAIT, NULL)) continue;
        if (packbuf_open(&view, item.lease.data, item.got, PACKBUF_OPEN_EXACT, NULL, NULL) ||
            packbuf_verify(&view, PACKBUF_LEVEL_FULL, NULL))
          wrong(&j->torn, "a batch is torn", listed[i].key, item.stat.generation, item.got);
        packbuf_lease_release(&item.lease);
      }
      /* a server may hold for a moment what it has sent already */
      if (remove && packbuf_batch_remove(c->under, &item, 1, packbuf_deadline_in(5000), NULL))
        wrong(&j->leaked, "held by nobody, but leased", listed[i].key, 0, 0);
    }
    all += count;
  } while (cursor);
  return all;
}

static int nothing_lost(const packbuf_audit *a) {
  return !a->lost_bytes && !a->shared_bytes && !a->lost_slots && !a->lost_cells && !a->lost_pins && !a->hidden;
}

/* At any moment, whoever works or is stopped or was killed. */
static void audit_busy(campaign *c) {
  packbuf_audit a;
  if (packbuf_store_audit(c->under, &a, NULL) || nothing_lost(&a)) return;
  wrong(&j->leaked, "lost bytes, shared, of a busy store", "audit", a.lost_bytes, a.shared_bytes);
  wrong(&j->leaked, "lost slots, cells, of a busy store", "audit", a.lost_slots, a.lost_cells);
  wrong(&j->leaked, "lost pins, hidden, of a busy store", "audit", a.lost_pins, a.hidden);
}

/* 1: nothing is lost, nothing is out, and `objects` are there. */
static int accounted(campaign *c, uint64_t objects, int tell) {
  packbuf_audit a;
  packbuf_counters counters;
  const uint64_t used = (uint64_t)STORE_SIZE;
  if (packbuf_store_collect(c->under, PACKBUF_FOREVER, NULL, NULL) || packbuf_store_audit(c->under, &a, NULL) ||
      packbuf_store_counters(c->under, &counters, NULL))
    return 0;
  if (nothing_lost(&a) && a.objects == objects && !a.removed && !a.filling && !a.dead &&
      a.object_bytes + a.free_bytes == used && counters.leases == 0 && counters.store_used == a.object_bytes &&
      !LOAD(j->server_leases) && !LOAD(j->server_slices))
    return 1;
  if (tell) {
    wrong(&j->leaked, "objects, removed", "audit", a.objects - objects, a.removed);
    wrong(&j->leaked, "filling, dead", "audit", a.filling, a.dead);
    wrong(&j->leaked, "lost bytes, shared", "audit", a.lost_bytes, a.shared_bytes);
    wrong(&j->leaked, "lost slots, cells", "audit", a.lost_slots, a.lost_cells);
    wrong(&j->leaked, "lost pins, hidden", "audit", a.lost_pins, a.hidden);
    wrong(&j->leaked, "leases, slices of the server", "audit", LOAD(j->server_leases), LOAD(j->server_slices));
  }
  return 0;
}

/* The same, once a server has seen that they are gone, and let go what it sent: it takes a moment. Of how many objects
 * there must be `none`, or as many as are listed. */
static void settles(campaign *c, int none) {
  int good = 0;
  for (unsigned i = 0; i < 60 && !good; i++) {
    const uint64_t looks = LOAD(j->server_looks);
    for (unsigned n = 0; c->server && n < 2000 && LOAD(j->server_looks) < looks + 3; n++) pause_us(1000);
    if (i) pause_us(20000);
    good = accounted(c, none ? 0 : list_and_remove(c, NULL, 0), i == 59);
  }
}

/* Everybody is killed; then all that is there is looked at, and every byte accounted for; sometimes all goes. */
static void quiet(campaign *c, int empties) {
  for (unsigned i = 0; i < WORKERS; i++) reap(&c->workers[i]);
  settles(c, 0);
  for (unsigned key = 0; key < STAYING + GOING; key++) {
    const known k = known_of(key);
    char name[16];
    key_name(key, name);
    look_shared(key, name, number_at(c, key), k);
  }
  for (unsigned i = 0; i < WORKERS; i++) check_own(c, i, 1);
  list_and_remove(c, empties ? NULL : "batch", 1);
  if (empties) {
    for (unsigned key = 0; key < KEYS; key++) j->keys[key].there = 0;
    memset(j->own, 0, sizeof j->own);
    settles(c, 1);
  }
  c->quiet++;
}

static void kill_server(campaign *c) {
  char at[300];
  reap(&c->server);
  snprintf(at, sizeof at, "%s", uri);
  c->server = server_start(at);
  c->server_kills++;
}

/* While somebody is stopped, nobody waits for it. */
static void others_go_on(campaign *c) {
  worker w;
  memset(&w, 0, sizeof w);
  w.slot = WORKERS; /* of no own keys */
  w.random = next_random(&c->random) | 1;
  w.store = c->store;
  w.bytes = (uint8_t *)malloc(LONGEST);
  w.into = (uint8_t *)malloc(LONGEST);
  if (!w.bytes || !w.into) abort();
  for (int i = 0; i < 6; i++) {
    const unsigned key = below_of(&w, STAYING + GOING);
    if (i % 3 == 0) do_put(&w, key);
    else if (i % 3 == 1 || key < STAYING) do_get(&w, key);
    else do_remove(&w, key);
  }
  while (w.holds) let_go(&w, 0);
  free(w.bytes);
  free(w.into);
}

static void round_of_kills(campaign *c) {
  const unsigned slot = (unsigned)(next_random(&c->random) >> 20) % WORKERS;
  const unsigned how = (unsigned)(next_random(&c->random) >> 20) % 16;
  pid_t *victim = &c->workers[slot];
  pause_us((100 + (next_random(&c->random) >> 20) % 1500) * (c->server ? 8 : 1));
  if (c->server && how == 15) {
    kill_server(c);
    return;
  }
  if (c->server && how == 14) victim = &c->server; /* stopped alone: what is asked of it meanwhile waits */
  if (how >= 9) {
    (void)kill(*victim, SIGSTOP);
    c->stops++;
    if (victim != &c->server) others_go_on(c);
    else pause_us((next_random(&c->random) >> 20) % 20000);
    audit_busy(c);
    if (how >= 12) {
      (void)kill(*victim, SIGCONT);
      return;
    }
  }
  reap(victim);
  c->kills++;
  audit_busy(c);
  check_own(c, slot, 0);
  *victim = child_worker(slot, next_random(&c->random));
}

static void campaign_of_kills(campaign *c, uint64_t rounds) {
  for (uint64_t n = 0; n < rounds && !LOAD(j->notes); n++) {
    for (unsigned i = 0; i < WORKERS; i++)
      if (!c->workers[i]) c->workers[i] = child_worker(i, next_random(&c->random));
    round_of_kills(c);
    if (n % 100 == 99 || n + 1 == rounds) quiet(c, n % 200 == 199 || n + 1 == rounds);
    if (n % 1000 == 999) tap_note("%llu rounds", (unsigned long long)(n + 1));
  }
  for (unsigned i = 0; i < WORKERS; i++) reap(&c->workers[i]);
}

/* ---- in one process: planned faults, in threads ---- */

static void round_of_faults(campaign *c) {
  static const packbuf_fault_kind kinds[] = {PACKBUF_FAULT_FAIL, PACKBUF_FAULT_DELAY, PACKBUF_FAULT_SHORTEN,
                                             PACKBUF_FAULT_REORDER};
  packbuf_fault faults[4];
  for (unsigned i = 0; i < 4; i++) {
    faults[i].at = i * 8 + (next_random(&c->random) >> 20) % 8;
    faults[i].kind = kinds[(next_random(&c->random) >> 20) % 4];
    faults[i].argument = faults[i].kind == PACKBUF_FAULT_FAIL ? PACKBUF_SYSTEM : (next_random(&c->random) >> 20) % 3000;
  }
  (void)packbuf_store_inject(c->store, faults, 4, NULL);
  c->kills++;
  pause_us(50 + (next_random(&c->random) >> 20) % 300);
}

static void campaign_of_faults(campaign *c, uint64_t rounds) {
  pthread_t threads[WORKERS];
  static worker workers[WORKERS];
  packbuf_store_info info;
  packbuf_counters counters;
  c->under = shared_one = c->store;
  for (uint64_t n = 0; n < rounds && !LOAD(j->notes);) {
    STORE(j->stop, 0);
    for (unsigned i = 0; i < WORKERS; i++) {
      worker_start(&workers[i], i, next_random(&c->random));
      if (pthread_create(&threads[i], NULL, thread_worker, &workers[i]) != 0) abort();
    }
    for (unsigned i = 0; i < 500 && n < rounds; i++, n++) round_of_faults(c);
    STORE(j->stop, 1);
    for (unsigned i = 0; i < WORKERS; i++) {
      (void)pthread_join(threads[i], NULL);
      free(workers[i].bytes);
      free(workers[i].into);
    }
    (void)packbuf_store_inject(c->store, NULL, 0, NULL);
    (void)packbuf_store_collect(c->store, PACKBUF_FOREVER, NULL, NULL);
    for (unsigned i = 0; i < WORKERS; i++) check_own(c, i, 1);
    (void)list_and_remove(c, NULL, 1);
    for (unsigned key = 0; key < KEYS; key++) j->keys[key].there = 0;
    memset(j->own, 0, sizeof j->own);
    (void)packbuf_store_describe(c->store, &info, PACKBUF_FOREVER, NULL);
    (void)packbuf_store_counters(c->store, &counters, NULL);
    if (info.used || info.objects || counters.leases || counters.slices)
      wrong(&j->leaked, "bytes, objects", "local", info.used, info.objects),
          wrong(&j->leaked, "leases, slices", "local", counters.leases, counters.slices);
    c->quiet++;
  }
}

/* ---- main ---- */

static void away(void) {
  char path[128];
  if (strncmp(below, "shm:", 4) != 0) return;
  snprintf(path, sizeof path, "/dev/shm/packbuf.%s", below + 4);
  (void)unlink(path);
}

/* The stores; 0: they cannot be opened. */
static int begin(campaign *c, const char *at) {
  packbuf_store_options options = packbuf_default_store_options();
  const char *colon = strchr(at, ':');
  options.size = STORE_SIZE;
  options.objects = 256;
  options.sessions = 16;
  options.name = "kills";
  if (!colon || colon - at >= (long)sizeof scheme) return 0;
  memcpy(scheme, at, (size_t)(colon - at));
  if (strcmp(scheme, "local") == 0) return packbuf_store_open(at, &options, &c->store, NULL) == PACKBUF_OK;
  snprintf(below, sizeof below, "shm:kills-%ld", (long)getpid());
  if (packbuf_store_open(below, &options, &c->under, NULL)) return 0;
  strict = strcmp(scheme, "shm") == 0;
  snprintf(uri, sizeof uri, "%s", below);
  if (!strict) {
    c->server = server_start(at);
    snprintf(uri, sizeof uri, "%s", j->server_uri);
    if (!LOAD(j->server_up)) return 0;
  }
  c->store = opened(5000);
  return c->store != NULL;
}

int main(int argc, char **argv) {
  static campaign c;
  const uint64_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000;
  const uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : packbuf_now();
  const char *at = argc > 1 ? argv[1] : "shm:";
  uint64_t told;
  j = (journal *)mmap(NULL, sizeof *j, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (j == MAP_FAILED) abort();
  atexit(away);
  c.random = seed | 1;
  tap_note("%s: %llu rounds from seed %llu", at, (unsigned long long)rounds, (unsigned long long)seed);
  if (!tap_ok(begin(&c, at), "%s: a store", at)) return tap_plan_done();
  if (strcmp(scheme, "local") == 0) campaign_of_faults(&c, rounds);
  else campaign_of_kills(&c, rounds);
  told = LOAD(j->notes);
  for (uint64_t i = 0; i < told && i < NOTES; i++) tap_note("%s", j->note[i]);
  tap_ok(!told, "%s: %llu killed or faulted, %llu stopped, %llu times the server; %llu times all was accounted for", at,
         (unsigned long long)c.kills, (unsigned long long)c.stops, (unsigned long long)c.server_kills,
         (unsigned long long)c.quiet);
  tap_ok(!j->torn && !j->stale && !j->lost && !j->back && !j->leaked && !j->failed,
         "torn %llu, stale %llu, lost %llu, back again %llu, leaked %llu, other failures %llu",
         (unsigned long long)j->torn, (unsigned long long)j->stale, (unsigned long long)j->lost,
         (unsigned long long)j->back, (unsigned long long)j->leaked, (unsigned long long)j->failed);
  tap_note(
      "puts %llu, gets %llu (of ranges %llu), removes %llu, batches %llu, STALE %llu, FULL %llu, DISCONNECTED %llu",
      (unsigned long long)j->puts, (unsigned long long)j->gets, (unsigned long long)j->cut,
      (unsigned long long)j->removes, (unsigned long long)j->batches, (unsigned long long)j->staled,
      (unsigned long long)j->full, (unsigned long long)j->away);
  tap_ok(packbuf_store_close(c.store, packbuf_deadline_in(5000), NULL) == PACKBUF_OK, "%s: closed, nothing is out", at);
  if (c.server) (void)kill(c.server, SIGKILL);
  return tap_plan_done();
}
