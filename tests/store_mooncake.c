/* tests/store_mooncake.c: the driver of Mooncake against a double of its library (tests/double/mooncake.c): each trap
 * of the C ABI, objects and pointers, what leases of the engine delay, calls that end after their caller has gone,
 * room, errors of the engine by number, two clients, many threads. Also built with ThreadSanitizer.
 * May use: internals.h, tap.h. Must not know: handles (the suite of all stores runs on this one too). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "tap.h"

enum { /* the double's numbers of functions */
       SETUP = 2,
       PUT_FROM = 6,
       BATCH_PUT_FROM = 7,
       GET_INTO = 8,
       IS_EXIST = 10,
       REMOVE = 14,
       REGISTER = 17
};
enum { OBJECTS, BYTES, CLIENTS, RANGES, UNPINNED };

static struct {
  void (*reset)(void);
  void (*clock)(uint64_t milliseconds);
  void (*capacity)(uint64_t bytes);
  void (*fail)(int function, uint64_t after, const char *part, int code, uint64_t milliseconds);
  void (*gate)(int function);
  void (*await)(void);
  uint64_t (*calls)(int function);
  void (*health)(int code);
  uint64_t (*state)(int which);
  uint8_t *(*object)(const char *key, size_t *size, int resize, size_t to);
  int (*lose)(const char *key);
  void (*lie)(int function, int code);
} fake;

static const packbuf_driver *const driver = &packbuf_i_mooncake_driver;
static packbuf_error error;

static int load_double(const char *file) {
  static const char *const names[] = {"double_reset", "double_clock",  "double_capacity", "double_fail",
                                      "double_gate",  "double_await",  "double_calls",    "double_health",
                                      "double_state", "double_object", "double_lose",     "double_lie"};
  void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  for (size_t i = 0; library && i < sizeof names / sizeof *names; i++) {
    void *function = dlsym(library, names[i]);
    if (!function) return 0;
    memcpy((char *)&fake + i * sizeof function, &function, sizeof function);
  }
  return library != NULL;
}

/* ---- one client ---- */

typedef struct client {
  packbuf_pool *pool;
  void *state;
} client;

static packbuf_status open_client(client *c, const char *uri, uint64_t pool, const packbuf_allocator *allocator,
                                  uint32_t connect_ms) {
  packbuf_store_options options;
  packbuf_pool_options wanted;
  packbuf_status status;
  memset(&options, 0, sizeof options);
  memset(&wanted, 0, sizeof wanted);
  memset(&error, 0, sizeof error);
  c->state = NULL;
  wanted.size = pool;
  wanted.huge_pages = 1;
  if (packbuf_pool_open(&wanted, &c->pool, NULL)) return PACKBUF_OUT_OF_MEMORY;
  options.pool = c->pool;
  options.allocator = allocator;
  options.connect_ms = connect_ms;
  status = driver->open(&c->state, uri, &options, &error);
  if (status) (void)packbuf_pool_close(c->pool, NULL);
  return status;
}

static client start(void) {
  client c;
  fake.reset();
  if (open_client(&c, "mooncake://127.0.0.1:50051", (uint64_t)16 << 20, NULL, 0)) {
    tap_ok(0, "a client: %s", error.message);
    exit(1);
  }
  return c;
}

static int no_slices(const client *c) {
  int none;
  packbuf_i_locked(&c->pool->lock);
  none = c->pool->slices == 0;
  packbuf_i_unlocked(&c->pool->lock);
  return none;
}

/* Whether all slices come back soon: those of late calls with these. */
static int slices_back(const client *c) {
  for (int i = 0; i < 500 && !no_slices(c); i++) packbuf_i_sleep_until(packbuf_deadline_in(10));
  return no_slices(c);
}

static int stop(client *c) {
  const int all_back = no_slices(c);
  driver->close(c->state);
  return all_back && packbuf_pool_close(c->pool, NULL) == PACKBUF_OK;
}

/* The engine's name of an object; generation 0: of the pointer. */
static const char *name_of(const char *key, uint64_t generation) {
  static char name[PACKBUF_I_MOONCAKE_NAME];
  packbuf_i_mooncake_name(name, key, strlen(key), generation);
  return name;
}

typedef struct counted_call {
  packbuf_call call; /* first */
  unsigned done[4096];
  uint64_t cancelled; /* index + 1 */
} counted_call;

static int cancel_all; /* atomic: whatever runs is cancelled from now on */

static void call_done(packbuf_call *call, uint64_t index) { ((counted_call *)(void *)call)->done[index]++; }
static int call_cancelled(const packbuf_call *call, uint64_t index) {
  return PACKBUF_I_LOAD(&cancel_all) || ((const counted_call *)(const void *)call)->cancelled == index + 1;
}

static uint64_t cancel_next; /* index + 1 */

/* Whether a call without waiting took so long that it was given up: the machine is busy, and it is made again. */
static int too_busy(packbuf_status status, uint64_t deadline, uint64_t began) {
  return status == PACKBUF_TIMEOUT && deadline == PACKBUF_NO_WAIT && packbuf_now() - began >= 45000000u;
}

/* Runs a batch; the first status that is not OK. Each item is done once, or the program ends. */
static packbuf_status run(const client *c, packbuf_operation operation, packbuf_item *items, uint64_t count,
                          uint64_t deadline) {
  counted_call *call = (counted_call *)calloc(1, sizeof *call);
  packbuf_status status = PACKBUF_OK;
  call->call.operation = operation;
  call->call.items = items;
  call->call.count = count;
  call->call.deadline = deadline;
  call->call.cancelled = call_cancelled;
  call->call.done = call_done;
  call->cancelled = cancel_next;
  driver->run(c->state, &call->call);
  for (uint64_t i = count; i-- > 0;) {
    if (call->done[i] != 1) {
      tap_ok(0, "item %u was done %u times", (unsigned)i, call->done[i]);
      exit(1);
    }
    if (items[i].status) status = items[i].status;
  }
  free(call);
  return status;
}

#define SOON packbuf_deadline_in(20000)

static uint8_t byte_of(uint64_t seed, uint64_t i) {
  return (uint8_t)((seed * 0x9E3779B97F4A7C15u + i * 37 + (i >> 8)) >> 3);
}

static uint8_t *bytes_of(uint64_t size, uint64_t seed) {
  uint8_t *bytes = (uint8_t *)malloc((size_t)size + 1);
  for (uint64_t i = 0; i < size; i++) bytes[i] = byte_of(seed, i);
  return bytes;
}

static int are(const void *data, uint64_t size, uint64_t seed) {
  const uint8_t *bytes = (const uint8_t *)data;
  for (uint64_t i = 0; i < size; i++)
    if (bytes[i] != byte_of(seed, i)) return 0;
  return 1;
}

static packbuf_status put_until(const client *c, const char *key, uint64_t size, uint64_t seed, uint64_t deadline,
                                uint64_t *generation) {
  packbuf_item item;
  uint8_t *bytes = bytes_of(size, seed);
  packbuf_status status;
  uint64_t began;
  memset(&item, 0, sizeof item);
  item.key = key;
  item.from = bytes;
  item.size = size;
  do {
    began = packbuf_now();
    status = run(c, PACKBUF_PUT, &item, 1, deadline);
  } while (too_busy(status, deadline, began));
  if (generation) *generation = item.stat.generation;
  free(bytes);
  return status;
}

static packbuf_status put(const client *c, const char *key, uint64_t size, uint64_t seed, uint64_t *generation) {
  return put_until(c, key, size, seed, SOON, generation);
}

/* Gets with a lease, which is given back; LOSSY when the bytes are wrong. */
static packbuf_status get_until(const client *c, const char *key, uint64_t generation, uint64_t size, uint64_t seed,
                                uint64_t deadline) {
  packbuf_item item;
  packbuf_status status;
  memset(&item, 0, sizeof item);
  item.key = key;
  item.generation = generation;
  status = run(c, PACKBUF_GET, &item, 1, deadline);
  if (status) return item.lease.token ? PACKBUF_LOSSY : status;
  if (item.stat.length != size || item.got != size || item.lease.size != size || !are(item.lease.data, size, seed))
    status = PACKBUF_LOSSY;
  if (generation && item.stat.generation != generation) status = PACKBUF_LOSSY;
  driver->let_go(c->state, item.lease.token);
  return status;
}

static packbuf_status get(const client *c, const char *key, uint64_t generation, uint64_t size, uint64_t seed) {
  return get_until(c, key, generation, size, seed, SOON);
}

static packbuf_status stat_of(const client *c, const char *key, uint64_t generation, packbuf_stat *stat) {
  packbuf_item item;
  packbuf_status status;
  memset(&item, 0, sizeof item);
  item.key = key;
  item.generation = generation;
  status = run(c, PACKBUF_STAT, &item, 1, SOON);
  if (stat) *stat = item.stat;
  return status;
}

static packbuf_status remove_until(const client *c, const char *key, uint64_t generation, uint32_t flags,
                                   uint64_t deadline) {
  packbuf_item item;
  packbuf_status status;
  uint64_t began;
  memset(&item, 0, sizeof item);
  item.key = key;
  item.generation = generation;
  item.flags = flags;
  do {
    began = packbuf_now();
    status = run(c, PACKBUF_REMOVE, &item, 1, deadline);
  } while (too_busy(status, deadline, began));
  return status;
}

static packbuf_status remove_of(const client *c, const char *key, uint64_t generation) {
  return remove_until(c, key, generation, 0, PACKBUF_NO_WAIT);
}

static uint64_t collect(const client *c) {
  uint64_t left = 99;
  return driver->collect(c->state, SOON, &left, NULL) ? 98 : left;
}

static packbuf_counters counters_of(const client *c) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  driver->count(c->state, &counters);
  return counters;
}

/* ---- opening ---- */

static void test_libraries(const char *file) {
  client c;
  (void)setenv("MOONCAKE_STORE_LIBRARY", "/nowhere/libmooncake_store.so", 1);
  tap_ok(open_client(&c, "mooncake://h:1", 1 << 20, NULL, 0) == PACKBUF_UNAVAILABLE &&
             !strcmp(error.path, "/nowhere/libmooncake_store.so"),
         "a library that is not there: UNAVAILABLE, and its name");
  (void)setenv("MOONCAKE_STORE_LIBRARY", "libc.so.6", 1);
  tap_ok(open_client(&c, "mooncake://h:1", 1 << 20, NULL, 0) == PACKBUF_UNAVAILABLE &&
             !strcmp(error.path, "mooncake_store_create"),
         "another library: UNAVAILABLE, and the first function that is missing");
  (void)setenv("MOONCAKE_STORE_LIBRARY", file, 1);
}

static void test_open(void) {
  client c;
  packbuf_store_info info;
  fake.reset();
  tap_ok(open_client(&c, "mooncake://", 1 << 20, NULL, 0) == PACKBUF_INVALID_ARGUMENT &&
             open_client(&c, "mooncake://h:1?wings=2", 1 << 20, NULL, 0) == PACKBUF_INVALID_ARGUMENT &&
             open_client(&c, "mooncake://h:1?segment=many", 1 << 20, NULL, 0) == PACKBUF_INVALID_ARGUMENT,
         "no master, an unknown option, a wrong value: INVALID_ARGUMENT");
  fake.fail(SETUP, 0, NULL, -900, 0);
  tap_ok(open_client(&c, "mooncake://h:1", 1 << 20, NULL, 0) == PACKBUF_DISCONNECTED && error.offset == 900 &&
             !fake.state(CLIENTS),
         "setup fails: DISCONNECTED, the engine's code as the offset; nothing stays");
  fake.fail(REGISTER, 1, NULL, -600, 0);
  tap_ok(open_client(&c, "mooncake://h:1", 1 << 20, NULL, 0) == PACKBUF_SYSTEM && !fake.state(CLIENTS) &&
             !fake.state(RANGES),
         "the pool cannot be registered: SYSTEM, nothing stays");
  fake.gate(SETUP);
  tap_ok(open_client(&c, "mooncake://h:1", 1 << 20, NULL, 50) == PACKBUF_TIMEOUT, "setup hangs: TIMEOUT");
  fake.gate(-1);
  for (int i = 0; i < 200 && fake.state(CLIENTS); i++) packbuf_i_sleep_until(packbuf_deadline_in(10));
  tap_ok(!fake.state(CLIENTS) && !fake.state(RANGES), "and ends by itself when the engine answers");
  tap_ok(!open_client(&c,
                      "mooncake://h:1?segment=64k&protocol=rdma&device=mlx5_0&host=a&metadata=http%3A%2F%2Fm&buffer=1m",
                      1 << 20, NULL, 0) &&
             fake.state(RANGES) == 2,
         "a client with all options; pool and pointers are registered");
  memset(&info, 0xa5, sizeof info);
  tap_ok(!driver->describe(c.state, &info, SOON, &error) && !strcmp(info.transport, "mooncake") &&
             !strcmp(info.uri, "mooncake://h:1") && !info.capabilities && info.size == UINT64_MAX && !info.stepped_down,
         "it says what it is; objects in a segment of its own do not outlive it");
  fake.health(2);
  tap_ok(driver->describe(c.state, &info, SOON, &error) == PACKBUF_DISCONNECTED, "and that its master is away");
  fake.health(0);
  tap_ok(stop(&c) && !fake.state(CLIENTS) && !fake.state(RANGES), "closed: nothing stays");
  tap_ok(!open_client(&c, "mooncake://h:1?segment=0", 1 << 20, NULL, 0) &&
             !driver->describe(c.state, &info, SOON, &error) && info.capabilities == PACKBUF_CAN_OUTLIVE && stop(&c),
         "without a segment of its own: they do");
}

/* ---- objects ---- */

static void test_sizes(void) {
  static const uint64_t sizes[] = {
      0, 1, 63, 64, 65, 4031, 4032, 4033, 4095, 4096, 4097, 65536, ((uint64_t)1 << 20) + 1};
  client c = start();
  int good = 1;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes && good; i++) {
    const uint64_t size = sizes[i];
    uint8_t *memory = (uint8_t *)malloc((size_t)size + 128);
    packbuf_stat stat;
    packbuf_item item;
    uint64_t generation = 0;
    memset(memory, 0xa5, (size_t)size + 128);
    memset(&item, 0, sizeof item);
    item.key = "k";
    item.into = memory + 64;
    item.capacity = size;
    good = !put(&c, "k", size, i, &generation) && generation && !get(&c, "k", generation, size, i) &&
           !get(&c, "k", 0, size, i) && !stat_of(&c, "k", generation, &stat) && stat.length == size &&
           stat.generation == generation && stat.kind == PACKBUF_OBJECT_BYTES && stat.left_ms == UINT64_MAX &&
           stat.age_ms < 20000;
    good = good && !run(&c, PACKBUF_GET, &item, 1, SOON) && item.got == size && are(memory + 64, size, i);
    for (int b = 0; b < 64; b++) good = good && memory[b] == 0xa5 && memory[64 + size + (uint64_t)b] == 0xa5;
    if (size) {
      item.capacity = size - 1;
      memory[64] ^= 0x55;
      good = good && run(&c, PACKBUF_GET, &item, 1, SOON) == PACKBUF_CAPACITY && memory[64] == (byte_of(i, 0) ^ 0x55);
    }
    free(memory);
  }
  tap_ok(good, "sizes from 0 to 1 MiB: put, got with a lease and into memory, looked at; too small: CAPACITY");
  tap_ok(!fake.state(UNPINNED), "all are pinned");
  tap_ok(get(&c, "none", 0, 0, 0) == PACKBUF_NOT_FOUND && get(&c, "none", 5, 0, 0) == PACKBUF_NOT_FOUND &&
             stat_of(&c, "none", 0, NULL) == PACKBUF_NOT_FOUND && stat_of(&c, "none", 5, NULL) == PACKBUF_NOT_FOUND &&
             remove_of(&c, "none", 0) == PACKBUF_NOT_FOUND && remove_of(&c, "none", 5) == PACKBUF_NOT_FOUND,
         "what never was: NOT_FOUND");
  fake.clock(20000);
  tap_ok(!remove_of(&c, "k", 0) && collect(&c) == 0 && fake.state(OBJECTS) == 0, "removed: nothing is left");
  tap_ok(remove_of(&c, "k", 0) == PACKBUF_NOT_FOUND && get(&c, "k", 0, 0, 0) == PACKBUF_NOT_FOUND, "and not found");
  tap_ok(stop(&c), "no slice stays out");
}

static void test_about(void) {
  client c = start(), b;
  packbuf_item item;
  packbuf_ref about;
  packbuf_stat stats[3];
  int good;
  memset(&about, 0, sizeof about);
  memset(&item, 0, sizeof item);
  memset(stats, 0, sizeof stats);
  about.kind = PACKBUF_OBJECT_MANIFEST;
  about.head_length = 4096;
  about.head_checksum = 0xdeadbeef;
  for (int i = 0; i < PACKBUF_FINGERPRINT; i++) about.fingerprint[i] = (uint8_t)(i + 1);
  item.key = "a@0123456789abcdef";
  item.from = "0123456789";
  item.size = 10;
  item.about = &about;
  (void)open_client(&b, "mooncake://h:1", 1 << 20, NULL, 0);
  good = !run(&c, PACKBUF_PUT, &item, 1, SOON) && !stat_of(&b, item.key, 0, &stats[0]) &&
         !stat_of(&b, item.key, item.stat.generation, &stats[1]) && fake.lose(name_of(item.key, 0)) &&
         !stat_of(&b, item.key, item.stat.generation, &stats[2]);
  for (int i = 0; i < 3; i++)
    good = good && stats[i].kind == PACKBUF_OBJECT_MANIFEST && stats[i].head_length == 4096 && stats[i].length == 10 &&
           stats[i].generation == item.stat.generation && stats[i].head_checksum == 0xdeadbeef &&
           !memcmp(stats[i].fingerprint, about.fingerprint, PACKBUF_FINGERPRINT);
  tap_ok(good, "kind, head and fingerprint come back: newest, by generation, and from the trailer without a pointer");
  {
    char key[PACKBUF_I_MOONCAKE_NAME];
    uint64_t generation = 0;
    good = !put(&c, "a", 5, 1, &generation);
    memcpy(key, name_of("a", generation), strlen(name_of("a", generation)) + 1);
    tap_ok(good && !put(&c, key, 7, 2, NULL) && !get(&b, "a", 0, 5, 1) && !get(&b, "a", generation, 5, 1) &&
               !get(&b, key, 0, 7, 2),
           "a key that is called as an object of another is told from it");
  }
  tap_ok(stop(&b) && stop(&c), "no slice stays out");
}

static void test_slices(void) {
  client c = start();
  static const uint64_t sizes[] = {1, 100, 4000, 4032, 4033, 8192, 100000};
  const uint64_t whole = 12288;
  packbuf_slice slice;
  packbuf_item item;
  uint8_t before[12288];
  int good = 1;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes && good; i++) {
    const uint64_t copies = counters_of(&c).copies, size = sizes[i];
    const int fits = (size + 63) / 64 * 64 + 64 <= (size + 4095) / 4096 * 4096;
    good = !packbuf_pool_take(c.pool, 0, &size, 1, SOON, &slice, NULL);
    for (uint64_t b = 0; b < size; b++) ((uint8_t *)slice.data)[b] = byte_of(i, b);
    memset(&item, 0, sizeof item);
    item.key = "s";
    item.from = slice.data;
    item.size = size;
    item.slice = &slice;
    good = good && !run(&c, PACKBUF_PUT, &item, 1, SOON) && slice.data &&
           !get(&c, "s", item.stat.generation, size, i) && counters_of(&c).copies == copies + !fits;
    packbuf_slice_release(&slice);
  }
  tap_ok(good, "slices are put without a copy, but where their pages have no room for a trailer");
  good = !packbuf_pool_take(c.pool, 0, &whole, 1, SOON, &slice, NULL);
  for (uint64_t b = 0; b < whole; b++) before[b] = ((uint8_t *)slice.data)[b] = byte_of(7, b);
  item.from = (const uint8_t *)slice.data + 10;
  item.size = 1001;
  fake.fail(PUT_FROM, 0, NULL, -800, 0);
  good = good && run(&c, PACKBUF_PUT, &item, 1, SOON) == PACKBUF_DISCONNECTED && slice.data &&
         !memcmp(slice.data, before, whole);
  tap_ok(good, "a put that fails leaves the slice as it was");
  good = !run(&c, PACKBUF_PUT, &item, 1, SOON);
  {
    packbuf_item back;
    memset(&back, 0, sizeof back);
    back.key = "s";
    back.generation = item.stat.generation;
    good = good && !run(&c, PACKBUF_GET, &back, 1, SOON) && back.got == 1001 &&
           !memcmp(back.lease.data, before + 10, 1001) && ((uintptr_t)back.lease.data & 4095) == 0;
    driver->let_go(c.state, back.lease.token);
  }
  tap_ok(good, "a part of a slice is put");
  packbuf_slice_release(&slice);
  tap_ok(stop(&c), "no slice stays out");
}

static void test_ranges(void) {
  client c = start();
  static const packbuf_range one[] = {{100, 50}}, many[] = {{999, 1}, {0, 10}, {5, 10}, {1000, 0}, {0, 1000}},
                             past[] = {{0, 10}, {990, 11}}, wrap[] = {{UINT64_MAX, 2}}, none[] = {{3, 0}};
  packbuf_item items[8];
  uint8_t into[1100];
  int good;
  memset(items, 0, sizeof items);
  for (int i = 0; i < 8; i++) items[i].key = "r";
  items[0].ranges = one, items[0].range_count = 1;
  items[1].ranges = many, items[1].range_count = 5;
  items[2].ranges = past, items[2].range_count = 2;
  items[3].ranges = wrap, items[3].range_count = 1;
  items[4].ranges = many, items[4].range_count = 5, items[4].into = into, items[4].capacity = 1021;
  items[5].ranges = many, items[5].range_count = 5, items[5].into = into, items[5].capacity = 1020;
  items[6].ranges = none, items[6].range_count = 1;
  items[7].ranges = none, items[7].range_count = 0;
  good = !put(&c, "r", 1000, 3, NULL) && run(&c, PACKBUF_GET, items, 8, SOON) == PACKBUF_OUT_OF_RANGE;
  tap_ok(good && items[2].status == PACKBUF_OUT_OF_RANGE && items[3].status == PACKBUF_OUT_OF_RANGE &&
             items[5].status == PACKBUF_CAPACITY,
         "ranges past the end, and no room for them");
  good = !items[0].status && items[0].got == 50 && !items[1].status && items[1].got == 1021 && !items[4].status &&
         items[4].got == 1021 && !items[6].status && items[6].got == 0 && !items[7].status && items[7].got == 0;
  for (uint64_t i = 0; i < 50 && good; i++) good = ((const uint8_t *)items[0].lease.data)[i] == byte_of(3, 100 + i);
  for (int w = 0; w < 2 && good; w++) {
    const uint8_t *at = w ? into : (const uint8_t *)items[1].lease.data;
    good = at[0] == byte_of(3, 999) && are(at + 1, 10, 3) && at[11] == byte_of(3, 5) && are(at + 21, 1000, 3);
  }
  tap_ok(good, "ranges in their order, with a lease and into memory");
  for (int i = 0; i < 8; i++)
    if (items[i].lease.token) driver->let_go(c.state, items[i].lease.token);
  tap_ok(stop(&c), "no slice stays out");
}

/* ---- generations ---- */

static void test_generations(void) {
  client c = start(), b;
  uint64_t g1 = 0, g2 = 0, g3 = 0, last = 0;
  int good = 1;
  (void)open_client(&b, "mooncake://h:1", (uint64_t)1 << 20, NULL, 0);
  for (int i = 0; i < 10000 && good; i++) {
    const uint64_t drawn = packbuf_i_mooncake_draw((packbuf_i_mooncake *)c.state);
    good = drawn > last;
    last = drawn;
  }
  tap_ok(good, "generations ascend");
  tap_ok(!put(&c, "k", 100, 1, &g1) && !put(&c, "k", 90, 2, &g2) && g2 > g1, "a key put twice");
  tap_ok(fake.state(OBJECTS) == 2, "the older object is removed, the pointer replaced");
  tap_ok(get(&c, "k", g1, 0, 0) == PACKBUF_STALE && get(&b, "k", g1, 0, 0) == PACKBUF_STALE &&
             stat_of(&c, "k", g1, NULL) == PACKBUF_STALE && stat_of(&b, "k", g1, NULL) == PACKBUF_STALE &&
             remove_of(&c, "k", g1) == PACKBUF_STALE && remove_of(&b, "k", g1) == PACKBUF_STALE,
         "the older is STALE, here and elsewhere");
  tap_ok(get(&b, "k", g2 + 1, 0, 0) == PACKBUF_STALE && stat_of(&b, "k", g2 + 1, NULL) == PACKBUF_STALE &&
             remove_of(&b, "k", g2 + 1) == PACKBUF_STALE && remove_of(&c, "k", g2 + 1) == PACKBUF_STALE &&
             !get(&b, "k", 0, 90, 2),
         "so is one that never was, and nothing is removed");
  tap_ok(!put(&b, "k", 80, 3, &g3) && g3 > g2 && !get(&c, "k", 0, 80, 3) && fake.state(OBJECTS) == 3,
         "another client supersedes; the older is leased by those who read it");
  tap_ok(get(&b, "k", g2, 0, 0) == PACKBUF_STALE, "STALE where it was superseded");
  good = get(&c, "k", g2, 90, 2) == PACKBUF_OK;
  tap_ok(good, "elsewhere its bytes, whole, as long as the engine has them");
  tap_ok(collect(&b) == 1, "its removal waits for the lease");
  fake.clock(10001);
  tap_ok(collect(&b) == 0 && fake.state(OBJECTS) == 2 && get(&c, "k", g2, 0, 0) == PACKBUF_STALE,
         "then it goes, and is STALE everywhere");
  tap_ok(!put(&c, "k", 70, 4, &g1) && g1 > g3 && !get(&b, "k", 0, 70, 4) && !get(&b, "k", g1, 70, 4),
         "the first client again");
  fake.clock(10001);
  tap_ok(collect(&b) == 0 && collect(&c) == 0 && fake.state(OBJECTS) == 2, "two objects: the newest and its pointer");
  tap_ok(stop(&b) && stop(&c), "no slice stays out");
}

/* What another thread does after 60 ms: puts "k" with `seed`, 100 bytes. */
typedef struct putter {
  const client *c;
  uint64_t seed;
  packbuf_status status;
} putter;

static void *put_later(void *context) {
  putter *const p = (putter *)context;
  packbuf_i_sleep_until(packbuf_deadline_in(60));
  p->status = put(p->c, "k", 100, p->seed, NULL);
  return NULL;
}

/* Two calls that meet on one key, in an order that delays make. */
static void test_meetings(void) {
  client c = start(), b;
  putter other;
  pthread_t thread;
  packbuf_status status;
  packbuf_stat stat;
  packbuf_i_mooncake_record record;
  uint64_t generation = 0;
  size_t size = 0;
  int good;
  (void)open_client(&b, "mooncake://h:1", (uint64_t)1 << 20, NULL, 0);
  other.c = &c;
  other.seed = 2;
  tap_ok(!put(&c, "k", 100, 0, NULL), "an object");
  fake.fail(REMOVE, 0, NULL, 0, 400); /* the first put has read the pointer when the second does all its work */
  (void)pthread_create(&thread, NULL, put_later, &other);
  status = put(&c, "k", 100, 1, NULL);
  (void)pthread_join(thread, NULL);
  tap_ok(!status && !other.status && !get(&b, "k", 0, 100, 2), "the pointer names the newer of two puts that met");
  fake.clock(20000);
  tap_ok(collect(&c) == 0 && fake.state(OBJECTS) == 2, "and the older one goes");

  (void)stat_of(&b, "k", 0, &stat);
  fake.clock(20000);
  other.seed = 3;
  fake.fail(GET_INTO, 0, name_of("k", stat.generation), 0, 400); /* it is replaced after the pointer was read */
  (void)pthread_create(&thread, NULL, put_later, &other);
  status = get(&b, "k", 0, 100, 3);
  (void)pthread_join(thread, NULL);
  tap_ok(!status && !other.status, "a get of the newest that is replaced meanwhile gets the next");

  fake.clock(20000);
  tap_ok(!get(&b, "k", 0, 100, 3) && !collect(&c), "a lease");
  other.seed = 4;
  other.c = &b;
  (void)pthread_create(&thread, NULL, put_later, &other);
  status = remove_until(&c, "k", 0, 0, packbuf_deadline_in(300));
  (void)pthread_join(thread, NULL);
  tap_ok(status == PACKBUF_LEASED && !other.status && !get(&c, "k", 0, 100, 4) && !get(&b, "k", 0, 100, 4),
         "a removal that waits leaves what is put meanwhile");

  good = packbuf_i_mooncake_read(fake.object(name_of("k", 0), &size, 0, 0), 1, &record);
  record.generation += (uint64_t)3600 * 1000000u << 12; /* a clock that is an hour ahead */
  packbuf_i_mooncake_write(fake.object(name_of("k", 0), &size, 0, 0), 1, &record);
  (void)put(&c, "k", 100, 5, NULL);
  tap_ok(good && !put(&c, "k", 100, 6, &generation) && generation > record.generation && !get(&b, "k", 0, 100, 6),
         "a client whose clock is behind catches up with what it has seen");
  tap_ok(stop(&b) && stop(&c), "no slice stays out");
}

static void test_one_key_in_a_batch(void) {
  client c = start();
  packbuf_item items[200];
  int good = 1;
  memset(items, 0, sizeof items);
  for (int i = 0; i < 200; i++) {
    items[i].key = "same";
    items[i].from = &items[i];
    items[i].size = 8;
  }
  good = !run(&c, PACKBUF_PUT, items, 200, SOON);
  for (int i = 1; i < 200; i++) good = good && items[i].stat.generation > items[i - 1].stat.generation;
  tap_ok(good && get(&c, "same", items[100].stat.generation, 8, 0) == PACKBUF_STALE, "a key 200 times in a batch");
  {
    packbuf_stat stat;
    good = !stat_of(&c, "same", 0, &stat) && stat.generation == items[199].stat.generation;
  }
  (void)collect(&c);
  tap_ok(good && fake.state(OBJECTS) == 2, "the last one stays, and its pointer (%u objects)",
         (unsigned)fake.state(OBJECTS));
  tap_ok(stop(&c), "no slice stays out");
}

/* ---- traps ---- */

static void test_shortened(void) {
  client c = start(), b;
  static const size_t to[] = {0, 1, 63, 64, 65, 1023, 1024, 1087};
  uint64_t generation = 0;
  int good = 1;
  size_t size = 0;
  uint8_t *bytes;
  (void)open_client(&b, "mooncake://h:1", 1 << 20, NULL, 0);
  for (size_t i = 0; i < sizeof to / sizeof *to && good; i++) {
    good = !put(&c, "k", 1024, i, &generation) && fake.object(name_of("k", generation), &size, 1, to[i]) &&
           get(&c, "k", generation, 0, 0) == PACKBUF_SHORT_READ &&
           get(&b, "k", generation, 0, 0) == PACKBUF_SHORT_READ && get(&b, "k", 0, 0, 0) == PACKBUF_SHORT_READ &&
           size == to[i];
  }
  tap_ok(good, "an object that was cut: SHORT_READ, whatever is known of it");
  good = !put(&c, "k", 1024, 9, &generation);
  (void)fake.object(name_of("k", generation), &size, 1, 1024 + 128);
  tap_ok(good && get(&c, "k", generation, 0, 0) != PACKBUF_OK && get(&b, "k", generation, 0, 0) != PACKBUF_OK,
         "one that grew is no object either");
  good = !put(&c, "k", 1024, 9, &generation);
  bytes = fake.object(name_of("k", generation), &size, 0, 0);
  bytes[1024 + 9] ^= 1;
  tap_ok(good && get(&c, "k", generation, 0, 0) == PACKBUF_SHORT_READ, "a trailer that is not right: SHORT_READ");
  bytes[1024 + 9] ^= 1;
  {
    packbuf_i_mooncake_record record;
    good = packbuf_i_mooncake_read(bytes + 1024, 0, &record);
    record.generation++;
    packbuf_i_mooncake_write(bytes + 1024, 0, &record);
  }
  tap_ok(good && get(&c, "k", generation, 0, 0) == PACKBUF_PROTOCOL, "a trailer of another generation: PROTOCOL");
  {
    packbuf_i_mooncake_record record;
    good = packbuf_i_mooncake_read(bytes + 1024, 0, &record);
    record.generation = generation;
    record.length -= 64;
    packbuf_i_mooncake_write(bytes + 1024, 0, &record);
  }
  tap_ok(good && get(&c, "k", generation, 0, 0) == PACKBUF_SHORT_READ, "a trailer of another length: SHORT_READ");
  bytes = fake.object(name_of("k", 0), &size, 0, 0);
  bytes[20] ^= 1;
  tap_ok(get(&b, "k", 0, 0, 0) == PACKBUF_NOT_FOUND && !put(&b, "k", 5, 5, NULL) && !get(&b, "k", 0, 5, 5),
         "a pointer that is not right is none, and is replaced");
  tap_ok(stop(&b) && stop(&c), "no slice stays out");
}

/* Each code of the engine, as the answer to each operation's own call. */
static void test_codes(void) {
  static const struct {
    int code;
    packbuf_status put, get, stat, remove;
  } all[] = {{-200, PACKBUF_FULL, PACKBUF_FULL, PACKBUF_FULL, PACKBUF_FULL},
             {-600, PACKBUF_UNREGISTERED, PACKBUF_UNREGISTERED, PACKBUF_UNREGISTERED, PACKBUF_UNREGISTERED},
             {-704, PACKBUF_TIMEOUT, PACKBUF_NOT_FOUND, PACKBUF_NOT_FOUND, PACKBUF_NOT_FOUND},
             {-706, PACKBUF_LEASED, PACKBUF_LEASED, PACKBUF_LEASED, PACKBUF_LEASED},
             {-800, PACKBUF_DISCONNECTED, PACKBUF_DISCONNECTED, PACKBUF_DISCONNECTED, PACKBUF_DISCONNECTED},
             {-801, PACKBUF_DATA_CHECKSUM, PACKBUF_DATA_CHECKSUM, PACKBUF_DATA_CHECKSUM, PACKBUF_DATA_CHECKSUM},
             {-900, PACKBUF_DISCONNECTED, PACKBUF_DISCONNECTED, PACKBUF_DISCONNECTED, PACKBUF_DISCONNECTED},
             {-901, PACKBUF_TIMEOUT, PACKBUF_TIMEOUT, PACKBUF_TIMEOUT, PACKBUF_TIMEOUT},
             {-1, PACKBUF_SYSTEM, PACKBUF_SYSTEM, PACKBUF_SYSTEM, PACKBUF_SYSTEM},
             {-1702, PACKBUF_SYSTEM, PACKBUF_SYSTEM, PACKBUF_SYSTEM, PACKBUF_SYSTEM}};
  client c = start();
  uint64_t generation = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    int good = !put(&c, "k", 100, i, &generation);
    const char *object = name_of("k", generation);
    fake.fail(GET_INTO, 0, object, all[i].code, 0);
    good = good && get_until(&c, "k", generation, 0, 0, SOON) == all[i].get && !get(&c, "k", generation, 100, i);
    fake.fail(IS_EXIST, 0, object, all[i].code, 0);
    good = good && stat_of(&c, "k", generation, NULL) == all[i].stat && !stat_of(&c, "k", generation, NULL);
    fake.clock(20000);
    fake.fail(REMOVE, 0, object, all[i].code, 0);
    good = good && remove_of(&c, "k", generation) == all[i].remove && collect(&c) == 0;
    fake.fail(PUT_FROM, 0, "k@", all[i].code, 0);
    good = good && put_until(&c, "k", 100, i, PACKBUF_NO_WAIT, NULL) == all[i].put;
    fake.fail(BATCH_PUT_FROM, 0, NULL, all[i].code, 0);
    good = good && put_until(&c, "k", 100, i, PACKBUF_NO_WAIT, NULL) == all[i].put && collect(&c) == 0;
    if (all[i].code == -704) (void)fake.lose(object);
    tap_ok(good && fake.state(OBJECTS) == 0, "code %d: %s", all[i].code, packbuf_status_name(all[i].get));
  }
  tap_ok(!put(&c, "k", 100, 1, &generation), "an object");
  fake.fail(GET_INTO, 0, name_of("k", generation), -707, 0);
  tap_ok(!get(&c, "k", generation, 100, 1), "-707, a lease that ran out: the get is made again");
  fake.fail(GET_INTO, 0, name_of("k", generation), -707, 0);
  fake.fail(GET_INTO, 0, name_of("k", generation), -707, 0);
  tap_ok(get(&c, "k", generation, 0, 0) == PACKBUF_SHORT_READ, "twice: SHORT_READ");
  tap_ok(stop(&c), "no slice stays out");
}

/* A removal that a lease delays. */
static void *turn_later(void *context) {
  packbuf_i_sleep_until(packbuf_deadline_in(50));
  fake.clock(*(uint64_t *)context);
  return NULL;
}

static void test_leases(void) {
  client c = start(), b;
  uint64_t generation = 0, later = 20000, before, asked;
  pthread_t thread;
  (void)open_client(&b, "mooncake://h:1", 1 << 20, NULL, 0);
  tap_ok(!put(&c, "k", 100, 1, &generation) && !stat_of(&c, "k", 0, NULL), "a stat leases an object");
  before = fake.calls(IS_EXIST);
  tap_ok(remove_of(&c, "k", 0) == PACKBUF_LEASED && get(&c, "k", 0, 0, 0) == PACKBUF_NOT_FOUND &&
             get(&c, "k", generation, 0, 0) == PACKBUF_NOT_FOUND &&
             stat_of(&c, "k", generation, NULL) == PACKBUF_NOT_FOUND && stat_of(&c, "k", 0, NULL) == PACKBUF_NOT_FOUND,
         "-706: LEASED, and gone for this client");
  tap_ok(get(&b, "k", 0, 0, 0) == PACKBUF_NOT_FOUND, "the pointer is gone for all");
  asked = packbuf_now();
  tap_ok(remove_until(&c, "k", generation, 0, packbuf_deadline_in(100)) == PACKBUF_LEASED &&
             packbuf_now() - asked >= 90000000u && packbuf_now() - asked < 2000000000u,
         "again, with 100 ms: LEASED after 100 ms");
  tap_ok(
      collect(&c) == 1 && remove_of(&c, "k", generation) == PACKBUF_LEASED && remove_of(&c, "k", 0) == PACKBUF_LEASED,
      "it waits");
  fake.clock(10001);
  tap_ok(collect(&c) == 0 && fake.state(OBJECTS) == 0 && remove_of(&c, "k", generation) == PACKBUF_NOT_FOUND,
         "until the lease ends");
  tap_ok(fake.calls(IS_EXIST) == before, "nobody asked whether it exists: that would have leased it again");
  tap_ok(!put(&c, "k", 100, 1, &generation) && !get(&c, "k", 0, 100, 1) &&
             !remove_until(&c, "k", generation, PACKBUF_REMOVE_FORCE, SOON) && fake.state(OBJECTS) == 0,
         "a get leases; REMOVE_FORCE removes all the same");
  tap_ok(!put(&c, "k", 100, 1, &generation) && !get(&c, "k", 0, 100, 1) && remove_of(&c, "k", 0) == PACKBUF_LEASED &&
             !remove_until(&c, "k", generation, PACKBUF_REMOVE_FORCE, SOON) && collect(&c) == 0 &&
             fake.state(OBJECTS) == 0,
         "also later");
  for (int i = 0; i < 2; i++) {
    int good = !put(&c, "k", 100, 1, &generation) && !get(&c, "k", 0, 100, 1);
    (void)pthread_create(&thread, NULL, turn_later, &later);
    good = good && !remove_until(&c, "k", i ? 0 : generation, 0, SOON);
    (void)pthread_join(thread, NULL);
    tap_ok(good && fake.state(OBJECTS) == 0, "a removal with time waits for the lease to end");
  }
  tap_ok(!put(&c, "k", 100, 1, NULL) && !get(&c, "k", 0, 100, 1) && remove_of(&c, "k", 0) == PACKBUF_LEASED &&
             !put(&c, "k", 100, 2, NULL) && !get(&c, "k", 0, 100, 2) && collect(&c) == 1,
         "a key may be put again while its removal waits");
  fake.clock(10001);
  tap_ok(collect(&c) == 0 && !get(&c, "k", 0, 100, 2) && fake.state(OBJECTS) == 2, "which then takes the old one");
  tap_ok(remove_of(&c, "k", 0) == PACKBUF_LEASED, "one more");
  fake.clock(10001);
  tap_ok(!collect(&c) && !put(&c, "k", 100, 1, &generation) && !get(&c, "k", 0, 100, 1) &&
             remove_of(&c, "k", generation) == PACKBUF_LEASED && get(&c, "k", 0, 0, 0) == PACKBUF_NOT_FOUND &&
             stat_of(&c, "k", 0, NULL) == PACKBUF_NOT_FOUND,
         "removed by its generation, it is not the newest either");
  fake.fail(REMOVE, 1, NULL, 0, 500);
  tap_ok(remove_until(&c, "k", generation, 0, packbuf_deadline_in(100)) == PACKBUF_LEASED,
         "LEASED at the deadline, also when the engine is slow then");
  fake.clock(10001);
  tap_ok(stop(&c) && fake.state(OBJECTS) == 0, "close tries once more");
  tap_ok(stop(&b), "no slice stays out");
}

/* ---- room ---- */

typedef struct frees {
  const client *c;
  const char *key;
} frees;

static void *remove_later(void *context) {
  const frees *what = (const frees *)context;
  packbuf_i_sleep_until(packbuf_deadline_in(50));
  (void)remove_until(what->c, what->key, 0, PACKBUF_REMOVE_FORCE, SOON);
  return NULL;
}

static void *cancel_later(void *context) {
  packbuf_i_sleep_until(packbuf_deadline_in(50));
  PACKBUF_I_STORE(&cancel_all, 1);
  return context;
}

static void test_full(void) {
  client c = start(), b;
  frees what;
  pthread_t thread;
  uint64_t asked;
  packbuf_status status;
  (void)open_client(&b, "mooncake://h:1", 1 << 20, NULL, 0);
  fake.capacity(100000);
  tap_ok(!put(&c, "a", 40000, 1, NULL) && !put(&c, "b", 40000, 2, NULL) &&
             put_until(&c, "c", 40000, 3, PACKBUF_NO_WAIT, NULL) == PACKBUF_FULL,
         "-200: FULL at once");
  asked = packbuf_now();
  status = put_until(&c, "c", 40000, 3, packbuf_deadline_in(200), NULL);
  asked = packbuf_now() - asked;
  tap_ok(status == PACKBUF_FULL && asked > 190000000u && asked < 2000000000u, "FULL at the deadline");
  (void)pthread_create(&thread, NULL, cancel_later, NULL);
  asked = packbuf_now();
  status = put(&c, "c", 40000, 3, NULL);
  (void)pthread_join(thread, NULL);
  PACKBUF_I_STORE(&cancel_all, 0);
  tap_ok(status == PACKBUF_CANCELLED && packbuf_now() - asked < 10000000000u && fake.state(OBJECTS) == 4,
         "cancelled while it waits for room");
  fake.fail(BATCH_PUT_FROM, 1, NULL, 0, 500);
  tap_ok(put_until(&c, "c", 40000, 3, packbuf_deadline_in(100), NULL) == PACKBUF_FULL && slices_back(&c),
         "also when the engine is slow then");
  tap_ok(!get(&c, "a", 0, 40000, 1) && !get(&c, "b", 0, 40000, 2) && get(&c, "c", 0, 0, 0) == PACKBUF_NOT_FOUND,
         "what was there is");
  what.c = &b;
  what.key = "a";
  (void)pthread_create(&thread, NULL, remove_later, &what);
  status = put(&c, "c", 40000, 3, NULL);
  (void)pthread_join(thread, NULL);
  tap_ok(!status && !get(&c, "c", 0, 40000, 3), "a put waits for room that another client makes");
  tap_ok(remove_of(&c, "b", 0) == PACKBUF_LEASED, "a removal that is delayed");
  fake.clock(10001);
  tap_ok(!put_until(&c, "d", 40000, 4, PACKBUF_NO_WAIT, NULL) && !get(&c, "d", 0, 40000, 4),
         "a put that finds no room tries delayed removals first");
  {
    const uint64_t size = (uint64_t)17 << 20;
    tap_ok(put(&c, "e", size, 5, NULL) == PACKBUF_CAPACITY, "larger than the pool: CAPACITY at once");
  }
  tap_ok(stop(&b) && stop(&c), "no slice stays out");
}

static void test_pool(void) {
  client c;
  packbuf_item items[40];
  char keys[40][8];
  uint8_t *into = (uint8_t *)malloc(40 * 20000);
  int good = 1;
  fake.reset();
  (void)open_client(&c, "mooncake://h:1", 131072, NULL, 0);
  memset(items, 0, sizeof items);
  for (int i = 0; i < 40; i++) {
    keys[i][0] = 'k';
    keys[i][1] = (char)('0' + i / 10);
    keys[i][2] = (char)('0' + i % 10);
    keys[i][3] = 0;
    items[i].key = keys[i];
    items[i].from = bytes_of(20000, (uint64_t)i);
    items[i].size = 20000;
  }
  good = !run(&c, PACKBUF_PUT, items, 40, SOON);
  for (int i = 0; i < 40; i++) {
    void *memory;
    memcpy(&memory, &items[i].from, sizeof memory);
    free(memory);
  }
  tap_ok(good && no_slices(&c), "40 x 20,000 bytes through a pool of 128 KiB");
  memset(items, 0, sizeof items);
  for (int i = 0; i < 40; i++) {
    items[i].key = keys[i];
    items[i].into = into + 20000 * i;
    items[i].capacity = 20000;
  }
  good = !run(&c, PACKBUF_GET, items, 40, SOON);
  for (int i = 0; i < 40; i++) good = good && are(into + 20000 * i, 20000, (uint64_t)i);
  tap_ok(good && no_slices(&c), "and back");
  for (int i = 0; i < 40; i++) items[i].into = NULL, items[i].capacity = 0;
  tap_ok(run(&c, PACKBUF_GET, items, 40, PACKBUF_NO_WAIT) == PACKBUF_FULL && !items[0].status && items[39].status,
         "leases: as many as there is room for, FULL the others");
  for (int i = 0; i < 40; i++) {
    if (!items[i].status) {
      good = good && are(items[i].lease.data, 20000, (uint64_t)i);
      driver->let_go(c.state, items[i].lease.token);
    } else good = good && items[i].status == PACKBUF_FULL && !items[i].lease.token;
  }
  tap_ok(good, "each as it should be");
  good = !packbuf_pool_quota(c.pool, 3, 24576, NULL);
  for (int i = 0; i < 2; i++) items[i].account = 3;
  good = good && run(&c, PACKBUF_GET, items, 3, PACKBUF_NO_WAIT) == PACKBUF_QUOTA && !items[0].status &&
         items[1].status == PACKBUF_QUOTA && !items[2].status;
  driver->let_go(c.state, items[0].lease.token);
  driver->let_go(c.state, items[2].lease.token);
  tap_ok(good, "QUOTA of an account");
  free(into);
  tap_ok(stop(&c), "no slice stays out");
}

/* ---- calls that end late ---- */

static void test_late(void) {
  client c = start();
  uint64_t generation = 0, asked;
  uint8_t into[100];
  packbuf_item item;
  packbuf_status status;
  int good;
  tap_ok(!put(&c, "old", 100, 1, &generation), "an object");
  fake.gate(GET_INTO);
  asked = packbuf_now();
  memset(&item, 0, sizeof item);
  memset(into, 0xa5, sizeof into);
  item.key = "old";
  item.generation = generation;
  item.into = into;
  item.capacity = 100;
  status = run(&c, PACKBUF_GET, &item, 1, packbuf_deadline_in(100));
  asked = packbuf_now() - asked;
  tap_ok(status == PACKBUF_TIMEOUT && asked < 1000000000u && !no_slices(&c),
         "a get that hangs: TIMEOUT; its slice is kept");
  fake.gate(-1);
  good = slices_back(&c);
  for (int i = 0; i < 100; i++) good = good && into[i] == 0xa5;
  tap_ok(good && !get(&c, "old", generation, 100, 1), "it ends; nothing of the caller's was written; the client works");

  fake.gate(PUT_FROM);
  asked = packbuf_now();
  status = put_until(&c, "new", 100, 2, packbuf_deadline_in(100), NULL);
  good = packbuf_now() - asked < 1000000000u && get(&c, "new", 0, 0, 0) == PACKBUF_NOT_FOUND;
  tap_ok(status == PACKBUF_TIMEOUT && good, "a put that hangs: TIMEOUT");
  fake.gate(-1);
  good = slices_back(&c);
  tap_ok(good && get(&c, "new", 0, 0, 0) == PACKBUF_NOT_FOUND && fake.state(OBJECTS) == 2 && collect(&c) == 0,
         "it ends late, and is removed again");
  tap_ok(!put(&c, "new", 100, 2, NULL) && !get(&c, "new", 0, 100, 2), "put again");
  fake.lie(PUT_FROM, -800);
  tap_ok(put(&c, "new", 100, 9, NULL) == PACKBUF_DISCONNECTED && fake.state(OBJECTS) == 5 && collect(&c) == 0 &&
             fake.state(OBJECTS) == 4 && !get(&c, "new", 0, 100, 2),
         "an object that is there although its put failed goes with the next collect");
  fake.gate(PUT_FROM);
  status = put_until(&c, "new", 100, 3, packbuf_deadline_in(60), NULL);
  fake.fail(REMOVE, 0, NULL, -900, 0);
  fake.gate(-1);
  good = slices_back(&c);
  tap_ok(
      status == PACKBUF_TIMEOUT && good && !get(&c, "new", 0, 100, 2) && collect(&c) == 0 && fake.state(OBJECTS) == 4,
      "a late put that cannot be removed at once waits for collect; the key is as before");

  fake.gate(REMOVE); /* the pointer is being replaced */
  status = put_until(&c, "new", 100, 4, packbuf_deadline_in(100), &generation);
  tap_ok(!status, "a put whose object is there is a put, though its pointer is not");
  fake.gate(-1);
  good = slices_back(&c);
  for (int i = 0; i < 500 && get(&c, "new", 0, 100, 4); i++) packbuf_i_sleep_until(packbuf_deadline_in(10));
  tap_ok(good && !get(&c, "new", 0, 100, 4) && !get(&c, "new", generation, 100, 4), "the pointer follows");

  fake.gate(REMOVE);
  status = remove_until(&c, "old", 0, 0, packbuf_deadline_in(60));
  fake.gate(-1);
  tap_ok(status == PACKBUF_TIMEOUT, "a removal that hangs: TIMEOUT");
  status = PACKBUF_TIMEOUT;
  for (int i = 0; i < 50 && status == PACKBUF_TIMEOUT; i++) status = get_until(&c, "new", 0, 100, 4, 1);
  tap_ok(!status, "a deadline in the past asks all the same, shortly");
  fake.fail(GET_INTO, 0, "new@", 0, 300);
  tap_ok(get_until(&c, "new", 0, 0, 0, PACKBUF_NO_WAIT) == PACKBUF_TIMEOUT && slices_back(&c),
         "TIMEOUT when that is too long");
  driver->close(c.state);
  tap_ok(packbuf_pool_close(c.pool, NULL) == PACKBUF_OK, "closed, the pool too");
}

static void test_cancel(void) {
  client c = start();
  packbuf_item items[3];
  memset(items, 0, sizeof items);
  for (int i = 0; i < 3; i++) items[i].key = i == 0 ? "a" : i == 1 ? "b" : "c", items[i].from = "x", items[i].size = 1;
  cancel_next = 2;
  tap_ok(run(&c, PACKBUF_PUT, items, 3, SOON) == PACKBUF_CANCELLED && !items[0].status && !items[2].status,
         "a cancelled item");
  cancel_next = 0;
  tap_ok(get(&c, "b", 0, 0, 0) == PACKBUF_NOT_FOUND && fake.state(OBJECTS) == 4, "was not put");
  for (int o = PACKBUF_GET; o <= PACKBUF_REMOVE; o++) {
    memset(items, 0, sizeof items);
    for (int i = 0; i < 3; i++) items[i].key = i == 0 ? "a" : i == 1 ? "a" : "c";
    cancel_next = 2;
    tap_ok(run(&c, (packbuf_operation)o, items, 3, SOON + (uint64_t)0) != PACKBUF_OK &&
               items[1].status == PACKBUF_CANCELLED,
           "in operation %d", o);
    cancel_next = 0;
    for (int i = 0; i < 3; i++)
      if (items[i].lease.token) driver->let_go(c.state, items[i].lease.token);
    fake.clock(10001);
  }
  tap_ok(stop(&c), "no slice stays out");
}

/* ---- many ---- */

static void test_batches(void) {
  client c = start();
  enum { N = 1000 };
  packbuf_item *items = (packbuf_item *)calloc(N, sizeof *items);
  char(*keys)[16] = (char(*)[16])calloc(N, 16);
  uint8_t *bytes = (uint8_t *)malloc(N * 100);
  int good = 1;
  for (int i = 0; i < N; i++) {
    (void)snprintf(keys[i], 16, "key-%d", i);
    items[i].key = keys[i];
    items[i].from = bytes + 100 * i;
    items[i].size = 100;
    for (uint64_t b = 0; b < 100; b++) bytes[100 * i + (int)b] = byte_of((uint64_t)i, b);
  }
  tap_ok(!run(&c, PACKBUF_PUT, items, N, SOON) && fake.state(OBJECTS) == 2 * N, "%d keys in a batch", N);
  tap_ok(fake.calls(BATCH_PUT_FROM) < 80, "in few calls (%u)", (unsigned)fake.calls(BATCH_PUT_FROM));
  memset(bytes, 0, N * 100);
  for (int i = 0; i < N; i++) {
    const uint64_t generation = items[i].stat.generation;
    memset(&items[i], 0, sizeof items[i]);
    items[i].key = i % 100 == 7 ? "missing" : keys[i];
    items[i].generation = i % 100 == 8 ? 1 : i % 2 ? generation : 0;
    items[i].into = bytes + 100 * i;
    items[i].capacity = i % 100 == 9 ? 99 : 100;
  }
  (void)run(&c, PACKBUF_GET, items, N, SOON);
  for (int i = 0; i < N; i++) {
    const packbuf_status expected = i % 100 == 7   ? PACKBUF_NOT_FOUND
                                    : i % 100 == 8 ? PACKBUF_STALE
                                    : i % 100 == 9 ? PACKBUF_CAPACITY
                                                   : PACKBUF_OK;
    good = good && items[i].status == expected && (expected || are(bytes + 100 * i, 100, (uint64_t)i));
  }
  tap_ok(good, "missing, stale, without room: these and no others fail");
  tap_ok(!fake.calls(IS_EXIST), "gets never ask whether something exists");
  fake.clock(10001);
  for (int i = 0; i < N; i++) {
    memset(&items[i], 0, sizeof items[i]);
    items[i].key = keys[i];
  }
  tap_ok(!run(&c, PACKBUF_STAT, items, N, SOON), "looked at");
  fake.clock(10001);
  tap_ok(!run(&c, PACKBUF_REMOVE, items, N, SOON) && fake.state(OBJECTS) == 0, "removed");
  free(bytes);
  free(keys);
  free(items);
  tap_ok(stop(&c), "no slice stays out");
}

typedef struct shared {
  client *c;
  unsigned number;
  int good;
} shared;

static void *work(void *context) {
  shared *const s = (shared *)context;
  uint64_t seed = s->number;
  char key[16];
  s->good = 1;
  for (int i = 0; i < 150 && s->good; i++) {
    uint64_t generation = 0, size;
    packbuf_item item;
    packbuf_status status;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    size = 8 + (seed >> 40) % 3000;
    (void)snprintf(key, sizeof key, "t%u", (unsigned)(seed >> 50) % 8);
    if (put(s->c, key, size, size, &generation)) s->good = 0;
    memset(&item, 0, sizeof item);
    item.key = key;
    item.generation = i % 2 ? generation : 0;
    status = run(s->c, PACKBUF_GET, &item, 1, SOON);
    if (status && status != PACKBUF_STALE && status != PACKBUF_NOT_FOUND) s->good = 0;
    if (!status) {
      if (!are(item.lease.data, item.lease.size, item.lease.size)) s->good = 0;
      driver->let_go(s->c->state, item.lease.token);
    }
    if (i % 8 == 0) {
      status = remove_of(s->c, key, generation);
      if (status && status != PACKBUF_STALE && status != PACKBUF_NOT_FOUND && status != PACKBUF_LEASED) s->good = 0;
    }
    if (i % 16 == 0) fake.clock(5000);
  }
  return NULL;
}

static void test_threads(unsigned of_other) {
  client c = start(), b;
  pthread_t threads[8];
  shared all[8];
  int good = 1;
  (void)open_client(&b, "mooncake://h:1", (uint64_t)4 << 20, NULL, 0);
  for (unsigned i = 0; i < 8; i++) {
    all[i].c = i < 8 - of_other ? &c : &b;
    all[i].number = i + 1;
    if (pthread_create(&threads[i], NULL, work, &all[i]) != 0) good = 0;
  }
  for (unsigned i = 0; i < 8; i++) {
    (void)pthread_join(threads[i], NULL);
    good = good && all[i].good;
  }
  tap_ok(good, "eight threads, %u of them with a client of their own, eight keys: whole objects, no other errors",
         of_other);
  fake.clock(20000);
  tap_ok(collect(&c) == 0 && collect(&b) == 0, "all removals happen in the end");
  if (of_other) tap_note("%u objects are left", (unsigned)fake.state(OBJECTS));
  else tap_ok(fake.state(OBJECTS) <= 16, "each key has one object and its pointer (%u)", (unsigned)fake.state(OBJECTS));
  tap_ok(stop(&b) && stop(&c), "no slice stays out");
}

/* ---- as users hold it ---- */

static void test_handle(void) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_store *store = NULL;
  packbuf_slice slice;
  packbuf_item items[4];
  packbuf_counters before, after;
  packbuf_completion completions[4];
  uint8_t raw[100], into[100];
  const uint64_t size = 50000;
  uint64_t ticket = 0, count = 0, left = 0;
  int good = 1;
  fake.reset();
  memset(&slice, 0, sizeof slice);
  memset(items, 0, sizeof items);
  options.pool_size = (uint64_t)4 << 20;
  tap_ok(!packbuf_store_open("mooncake://h:1?workers=2", &options, &store, &error), "a handle opens it: %s",
         store ? "" : error.message);
  if (!store) return;
  (void)packbuf_store_counters(store, &before, NULL);
  for (uint64_t i = 0; i < sizeof raw; i++) raw[i] = byte_of(2, i);
  for (int round = 0; round < 50 && good; round++) {
    good = !packbuf_reserve(store, 0, &size, 1, SOON, &slice, &error);
    for (uint64_t i = 0; i < size && good; i++) ((uint8_t *)slice.data)[i] = byte_of(1, i);
    memset(items, 0, sizeof items);
    items[0].key = "slice";
    items[0].from = slice.data;
    items[0].size = size - 100;
    items[0].slice = &slice;
    items[1].key = "raw";
    items[1].from = raw;
    items[1].size = sizeof raw;
    good = good && !packbuf_batch_put(store, items, 2, SOON, &error) && !slice.data;
    memset(items, 0, sizeof items);
    items[0].key = "slice";
    items[1].key = "raw";
    items[1].into = into;
    items[1].capacity = sizeof into;
    good = good && !packbuf_batch_get(store, items, 2, SOON, &error) && are(into, sizeof into, 2) &&
           items[0].lease.size == size - 100 && are(items[0].lease.data, size - 100, 1);
    if (round == 49) break;
    packbuf_lease_release(&items[0].lease);
  }
  (void)packbuf_store_counters(store, &after, NULL);
  tap_ok(good && after.copies - before.copies == 50, "50 rounds of put and get, by slice and from any memory");
  tap_ok(after.registrations == before.registrations && after.leases == 1, "nothing was registered for them");
  tap_ok(packbuf_store_close(store, SOON, &error) == PACKBUF_LEASED, "LEASED while a lease is out");
  packbuf_lease_release(&items[0].lease);
  memset(items, 0, sizeof items);
  for (int i = 0; i < 4; i++) items[i].key = i % 2 ? "raw" : "slice";
  good = !packbuf_submit(store, PACKBUF_GET, items, 4, SOON, NULL, &ticket, &error);
  for (int i = 0; i < 4 && good; i += (int)count)
    good = !packbuf_poll(store, completions, 4, &count, SOON, &error) && count;
  for (int i = 0; i < 4; i++) {
    good = good && !items[i].status;
    packbuf_lease_release(&items[i].lease);
  }
  tap_ok(good, "submitted and polled");
  tap_ok(packbuf_store_list(store, "", &ticket, NULL, 0, &count, SOON, &error) == PACKBUF_UNSUPPORTED_OPERATION,
         "no lists");
  fake.clock(20000);
  tap_ok(!packbuf_store_collect(store, SOON, &left, &error) && !left, "nothing waits to be removed");
  (void)packbuf_store_counters(store, &after, NULL);
  tap_ok(!after.pool_used && !after.slices && !after.leases, "no slice and no lease stays out");
  tap_ok(!packbuf_store_close(store, SOON, &error) && !fake.state(CLIENTS) && !fake.state(RANGES), "closed");
}

/* ---- memory ---- */

typedef struct failing {
  pthread_mutex_t mutex;
  long left, out;
} failing;

static void *failing_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  failing *const f = (failing *)context;
  void *result = NULL;
  int ok;
  (void)old_size;
  pthread_mutex_lock(&f->mutex);
  ok = !new_size || f->left-- > 0;
  if (ok && !memory) f->out++;
  if (!new_size) f->out--;
  pthread_mutex_unlock(&f->mutex);
  if (!new_size) free(memory);
  else if (ok) result = realloc(memory, new_size);
  return result;
}

static void test_memory(void) {
  failing f;
  packbuf_allocator allocator;
  int good = 1, whole = 0;
  (void)pthread_mutex_init(&f.mutex, NULL);
  allocator.resize = failing_resize;
  allocator.context = &f;
  for (long i = 0; i < 60 && good && !whole; i++) {
    client c;
    packbuf_status status;
    uint64_t generation = 0;
    fake.reset();
    f.left = i;
    f.out = 0;
    status = open_client(&c, "mooncake://h:1", 1 << 20, &allocator, 0);
    good = !status || status == PACKBUF_OUT_OF_MEMORY;
    if (!status) {
      packbuf_status all[4];
      all[0] = put(&c, "k", 100, 1, &generation);
      all[1] = get(&c, "k", 0, 100, 1);
      all[2] = put(&c, "k", 100, 2, NULL);
      all[3] = remove_of(&c, "k", 0);
      whole = f.left > 0 && !all[0] && !all[1] && !all[2] && all[3] == PACKBUF_LEASED;
      for (int k = 0; k < 4; k++)
        good = good &&
               (!all[k] || all[k] == PACKBUF_OUT_OF_MEMORY || all[k] == PACKBUF_NOT_FOUND || all[k] == PACKBUF_LEASED);
      f.left = 1000;
      good = good && !put(&c, "z", 10, 3, NULL) && !get(&c, "z", 0, 10, 3) && stop(&c);
    }
    good = good && f.out == 0;
    whole = whole || f.left > 2000;
  }
  tap_ok(good, "each allocation fails once: OUT_OF_MEMORY or done, nothing is lost, the client works");
  (void)pthread_mutex_destroy(&f.mutex);
}

int main(void) {
  const char *named = getenv("MOONCAKE_DOUBLE");
  const char *const file = named && *named ? named : "build/tests/libmooncake_double.so";
  char path[4096];
  if (!realpath(file, path) || !load_double(path)) {
    tap_skip("no double of Mooncake's library");
    return tap_plan_done();
  }
  test_libraries(path);
  test_open();
  test_sizes();
  test_about();
  test_slices();
  test_ranges();
  test_generations();
  test_meetings();
  test_one_key_in_a_batch();
  test_shortened();
  test_codes();
  test_leases();
  test_full();
  test_pool();
  test_late();
  test_cancel();
  test_batches();
  test_threads(0);
  test_threads(2);
  test_handle();
  test_memory();
  return tap_plan_done();
}
