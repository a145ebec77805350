/* tests/store_server.c: a server of a local store and clients by tcp over loopback, in one process: each operation,
 * ranges, large batches and objects, a status for each key, room that is waited for, secrets, deadlines against a
 * server that does not answer, clients that die in the middle of a put.
 * May use: internals.h. Must not know: how the local store does it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "fence.h"
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "items.h"

static void verdict(const char *what) { verdict_on("", what); }

#define MIB ((uint64_t)1 << 20)

static packbuf_store *served;
static packbuf_server *server;

static uint64_t soon(void) { return packbuf_deadline_in(20000); }

static void fill(uint8_t *bytes, size_t size, uint64_t from) {
  for (size_t i = 0; i < size; i++) {
    if (i % 8 == 0) from = from * 6364136223846793005u + 1442695040888963407u;
    bytes[i] = (uint8_t)(from >> (8 * (i % 8)));
  }
}

static int is_filled(const void *data, size_t size, uint64_t from) {
  const uint8_t *bytes = (const uint8_t *)data;
  for (size_t i = 0; i < size; i++) {
    if (i % 8 == 0) from = from * 6364136223846793005u + 1442695040888963407u;
    if (bytes[i] != (uint8_t)(from >> (8 * (i % 8)))) return 0;
  }
  return 1;
}

static packbuf_status client_open_at(const char *uri, const char *secret, packbuf_store **store, packbuf_error *error) {
  packbuf_store_options options = packbuf_default_store_options();
  options.pool_size = 32 * MIB;
  options.connect_ms = 2000;
  if (secret) options.secret = secret, options.secret_size = strlen(secret);
  return packbuf_store_open_driver(&packbuf_i_tcp_driver, uri, &options, store, error);
}

static packbuf_store *client_open(void) {
  packbuf_store *store = NULL;
  packbuf_error error;
  const packbuf_status status = client_open_at(packbuf_server_uri(server), NULL, &store, &error);
  expect(!status, "client: %s %s", packbuf_status_name(status), status ? error.message : "");
  return store;
}

static void client_close(packbuf_store *store) {
  packbuf_error error;
  packbuf_status status = packbuf_store_close(store, soon(), &error);
  expect(!status, "closing a client: %s", packbuf_status_name(status));
}

static void server_start(uint64_t size, const packbuf_server_options *options) {
  packbuf_store_options with = packbuf_default_store_options();
  packbuf_error error;
  packbuf_status status;
  with.size = size;
  with.objects = 16384;
  status = packbuf_store_open("local:", &with, &served, &error);
  if (!status) status = packbuf_server_open(served, "tcp://:0", options, &server, &error);
  expect(!status, "server: %s %s", packbuf_status_name(status), status ? error.message : "");
  if (status) exit(1);
}

static void server_stop(void) {
  packbuf_store_info info;
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  expect(!packbuf_server_close(server, packbuf_deadline_in(1000), NULL), "closing the server");
  expect(!packbuf_store_counters(served, &counters, NULL) && counters.leases == 0 && counters.slices == 0,
         "the server left %d leases, %d slices", (int)counters.leases, (int)counters.slices);
  expect(!packbuf_store_describe(served, &info, soon(), NULL), "describe");
  expect(!packbuf_store_close(served, soon(), NULL), "closing the store");
  server = NULL;
}

static packbuf_status put_bytes(packbuf_store *store, const char *key, const void *bytes, uint64_t size,
                                uint64_t deadline) {
  packbuf_item item = item_of(key);
  item.from = bytes;
  item.size = size;
  return packbuf_batch_put(store, &item, 1, deadline, NULL);
}

static packbuf_status stat_of(packbuf_store *store, const char *key, packbuf_stat *stat) {
  packbuf_item item = item_of(key);
  const packbuf_status status = packbuf_batch_stat(store, &item, 1, soon(), NULL);
  if (stat) *stat = item.stat;
  return status;
}

static packbuf_status remove_key(packbuf_store *store, const char *key) {
  packbuf_item item = item_of(key);
  return packbuf_batch_remove(store, &item, 1, soon(), NULL);
}

/* ---- one key ---- */

static void test_sizes(void) {
  static const uint64_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 16384, 65535, 65536, 65537, MIB + 1, 20 * MIB};
  uint8_t *bytes = (uint8_t *)malloc(20 * MIB), *back = (uint8_t *)malloc(20 * MIB + 2);
  packbuf_store *a, *b;
  begin("sizes");
  server_start(64 * MIB, NULL);
  a = client_open();
  b = client_open();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const uint64_t size = sizes[i];
    packbuf_item item = item_of("k");
    packbuf_stat stat;
    packbuf_status status;
    fill(bytes, size, size);
    item.from = bytes;
    item.size = size;
    status = packbuf_batch_put(a, &item, 1, soon(), NULL);
    expect(!status && item.stat.generation && item.stat.length == size, "put of %d: %s", (int)size,
           packbuf_status_name(status));
    expect(!stat_of(b, "k", &stat) && stat.length == size && stat.generation == item.stat.generation &&
               stat.kind == PACKBUF_OBJECT_BYTES,
           "stat of %d", (int)size);
    memset(back, 0xAA, size + 2);
    item = item_of("k");
    item.into = back + 1;
    item.capacity = size;
    status = packbuf_batch_get(b, &item, 1, soon(), NULL);
    expect(!status && item.got == size && item.stat.length == size && is_filled(back + 1, size, size) &&
               back[0] == 0xAA && back[size + 1] == 0xAA,
           "get of %d into memory: %s", (int)size, packbuf_status_name(status));
    item = item_of("k");
    status = packbuf_batch_get(b, &item, 1, soon(), NULL);
    expect(!status && item.got == size && item.lease.size == size && (!size || is_filled(item.lease.data, size, size)),
           "get of %d with a lease: %s", (int)size, packbuf_status_name(status));
    expect((uintptr_t)item.lease.data % 4096 == 0, "the lease is aligned");
    packbuf_lease_release(&item.lease);
    if (!size) continue;
    memset(back, 0xAA, size + 2);
    item = item_of("k");
    item.into = back + 1;
    item.capacity = size - 1;
    status = packbuf_batch_get(b, &item, 1, soon(), NULL);
    expect(status == PACKBUF_CAPACITY && back[1] == 0xAA && item.got == 0, "get of %d into too little: %s", (int)size,
           packbuf_status_name(status));
  }
  expect(!remove_key(b, "k") && remove_key(a, "k") == PACKBUF_NOT_FOUND && stat_of(a, "k", NULL) == PACKBUF_NOT_FOUND,
         "remove");
  client_close(a);
  client_close(b);
  server_stop();
  free(bytes);
  free(back);
  verdict("objects of 0 bytes to 20 MiB are put, looked at, got and removed by two clients");
}

static void test_generations(void) {
  packbuf_store *a;
  packbuf_item item = item_of("g"), again;
  packbuf_ref about;
  packbuf_listed listed[8];
  uint64_t cursor = 0, count = 0, first;
  uint8_t bytes[128] = {1, 2, 3};
  begin("generations");
  server_start(16 * MIB, NULL);
  a = client_open();
  memset(&about, 0, sizeof about);
  about.kind = PACKBUF_OBJECT_BATCH;
  about.head_length = 64;
  about.head_checksum = 0xDEADBEEF;
  memset(about.fingerprint, 7, sizeof about.fingerprint);
  item.from = bytes;
  item.size = sizeof bytes;
  item.about = &about;
  item.ttl_ms = 60000;
  item.flags = PACKBUF_PUT_EVICTABLE;
  expect(!packbuf_batch_put(a, &item, 1, soon(), NULL), "put");
  first = item.stat.generation;
  again = item_of("g");
  again.generation = first;
  expect(!packbuf_batch_stat(a, &again, 1, soon(), NULL) && again.stat.kind == PACKBUF_OBJECT_BATCH &&
             again.stat.head_length == 64 && again.stat.head_checksum == 0xDEADBEEF &&
             again.stat.fingerprint[15] == 7 && again.stat.left_ms <= 60000 && again.stat.left_ms > 50000 &&
             again.stat.flags == PACKBUF_PUT_EVICTABLE,
         "what it is about");
  expect(!packbuf_store_list(a, "g", &cursor, listed, 8, &count, soon(), NULL) && count == 1 && cursor == 0 &&
             strcmp(listed[0].key, "g") == 0 && listed[0].stat.generation == first &&
             listed[0].stat.fingerprint[0] == 7,
         "list");
  expect(!packbuf_store_list(a, "h", &cursor, listed, 8, &count, soon(), NULL) && count == 0,
         "list of a prefix that none has");
  expect(!put_bytes(a, "g", bytes, 5, soon()), "superseding");
  again.into = bytes;
  again.capacity = sizeof bytes;
  expect(packbuf_batch_get(a, &again, 1, soon(), NULL) == PACKBUF_STALE, "an old generation");
  expect(packbuf_batch_remove(a, &again, 1, soon(), NULL) != PACKBUF_OK && !stat_of(a, "g", NULL),
         "removing an old generation");
  { /* the same key three times in one batch: the last is the newest */
    packbuf_item three[3];
    uint8_t content[3] = {10, 11, 12}, back = 0;
    for (int i = 0; i < 3; i++) {
      three[i] = item_of("thrice");
      three[i].from = &content[i];
      three[i].size = 1;
    }
    expect(!packbuf_batch_put(a, three, 3, soon(), NULL) && three[0].stat.generation < three[1].stat.generation &&
               three[1].stat.generation < three[2].stat.generation,
           "three at once");
    again = item_of("thrice");
    again.into = &back;
    again.capacity = 1;
    expect(!packbuf_batch_get(a, &again, 1, soon(), NULL) && back == 12, "the newest is %d", back);
  }
  client_close(a);
  server_stop();
  verdict("generations, what objects are about, lists");
}

/* ---- batches ---- */

enum { MANY = 600 };
static char keys[MANY][32];

static void test_batches(void) {
  static packbuf_item items[MANY];
  uint8_t *bytes = (uint8_t *)malloc(MANY * 3000u), *back = (uint8_t *)malloc(MANY * 3000u);
  packbuf_store *a, *b;
  packbuf_error error;
  packbuf_counters counters;
  packbuf_slice slices[2];
  uint64_t sizes[2] = {100000, 10}, cursor = 0, seen = 0;
  unsigned bad = 0;
  begin("batches");
  server_start(64 * MIB, NULL);
  a = client_open();
  b = client_open();
  for (unsigned i = 0; i < MANY; i++) {
    snprintf(keys[i], sizeof keys[i], "batch/%u", i);
    fill(bytes + i * 3000u, 3000, i);
    items[i] = item_of(keys[i]);
    items[i].from = bytes + i * 3000u;
    items[i].size = i * 5u;
  }
  expect(!packbuf_batch_put(a, items, MANY, soon(), &error), "put of %d keys", MANY);
  for (unsigned i = 0; i < MANY; i++)
    expect(items[i].status == PACKBUF_OK && items[i].stat.generation, "put %d", (int)i);
  for (unsigned i = 0; i < MANY; i++) {
    items[i] = item_of(keys[i]);
    items[i].into = back + i * 3000u;
    items[i].capacity = 3000;
    if (i % 100 == 3) items[i].key = "never-put";
    if (i % 100 == 50) items[i].capacity = 1;
    if (i % 100 == 70) items[i].key = "bad key";
  }
  expect(packbuf_batch_get(b, items, MANY, soon(), &error) == PACKBUF_NOT_FOUND && error.row == 3,
         "get of %d keys, some bad", MANY);
  for (unsigned i = 0; i < MANY; i++) {
    const packbuf_status expected = i % 100 == 3    ? PACKBUF_NOT_FOUND
                                    : i % 100 == 50 ? PACKBUF_CAPACITY
                                    : i % 100 == 70 ? PACKBUF_INVALID_ARGUMENT
                                                    : PACKBUF_OK;
    expect(items[i].status == expected, "get %d: %s", (int)i, packbuf_status_name(items[i].status));
    bad += items[i].status != PACKBUF_OK;
    expect(expected || (items[i].got == i * 5u && is_filled(back + i * 3000u, i * 5u, i)), "content %d", (int)i);
  }
  expect(bad == 18, "%d failed", (int)bad);
  for (unsigned i = 0; i < MANY; i++) items[i] = item_of(keys[i]);
  expect(!packbuf_batch_get(b, items, MANY, soon(), NULL), "get of %d leases", MANY);
  for (unsigned i = 0; i < MANY; i++)
    expect(items[i].lease.size == i * 5u && is_filled(items[i].lease.data, i * 5u, i), "lease %d", (int)i);
  for (unsigned i = 0; i < MANY; i++) packbuf_lease_release(&items[i].lease);
  memset(&counters, 0, sizeof counters);
  expect(!packbuf_store_counters(b, &counters, NULL) && counters.leases == 0, "%d leases are left",
         (int)counters.leases);
  do {
    packbuf_listed listed[100];
    uint64_t count;
    expect(!packbuf_store_list(b, "batch/", &cursor, listed, 100, &count, soon(), NULL), "list");
    seen += count;
  } while (cursor && seen < 10000);
  expect(seen == MANY, "%d are listed", (int)seen);
  expect(!packbuf_batch_stat(b, items, MANY, soon(), NULL) && items[MANY - 1].stat.length == 5 * (MANY - 1),
         "stat of %d", MANY);
  expect(!packbuf_batch_remove(b, items, MANY, soon(), NULL), "remove of %d", MANY);
  expect(packbuf_batch_stat(a, items, MANY, soon(), NULL) == PACKBUF_NOT_FOUND, "they are gone");
  expect(!packbuf_reserve(a, 0, sizes, 2, soon(), slices, NULL), "slices");
  for (int i = 0; i < 2; i++) {
    fill((uint8_t *)slices[i].data, sizes[i], 77);
    items[i] = item_of(keys[i]);
    items[i].from = slices[i].data;
    items[i].size = sizes[i] - 1;
    items[i].slice = &slices[i];
  }
  expect(!packbuf_batch_put(a, items, 2, soon(), NULL) && !slices[0].data && !slices[1].data, "slices are taken over");
  items[0] = item_of(keys[0]);
  expect(!packbuf_batch_get(b, items, 1, soon(), NULL) && items[0].lease.size == 99999 &&
             is_filled(items[0].lease.data, 99999, 77),
         "and are what is got");
  packbuf_lease_release(&items[0].lease);
  client_close(a);
  client_close(b);
  server_stop();
  free(bytes);
  free(back);
  verdict("batches of 600 keys, each with a status of its own");
}

static void test_ranges(void) {
  static const packbuf_range some[] = {{10, 100}, {0, 0},           {5000000, 70000}, {50, 100},
                                       {0, 1},    {8 * MIB - 1, 1}, {8 * MIB, 0}},
                             past[] = {{0, 1}, {8 * MIB, 1}}, overflow[] = {{UINT64_MAX, 2}}, none[1] = {{0, 0}};
  uint8_t *bytes = (uint8_t *)malloc(8 * MIB), *back = (uint8_t *)malloc(MIB);
  packbuf_counters before, after;
  packbuf_item items[4];
  packbuf_store *a;
  packbuf_range *lots = (packbuf_range *)malloc(32769 * sizeof *lots);
  uint64_t at = 0;
  begin("ranges");
  server_start(64 * MIB, NULL);
  a = client_open();
  fill(bytes, 8 * MIB, 5);
  expect(!put_bytes(a, "r", bytes, 8 * MIB, soon()), "put");
  memset(&before, 0, sizeof before);
  memset(&after, 0, sizeof after);
  expect(!packbuf_store_counters(a, &before, NULL), "counters");
  for (int i = 0; i < 4; i++) {
    items[i] = item_of("r");
    items[i].ranges = i == 0 ? some : i == 1 ? past : i == 2 ? overflow : some;
    items[i].range_count = i == 0 || i == 3 ? 7 : i == 1 ? 2 : 1;
    items[i].into = i == 3 ? NULL : back;
    items[i].capacity = i == 3 ? 0 : MIB;
  }
  expect(packbuf_batch_get(a, items, 4, soon(), NULL) == PACKBUF_OUT_OF_RANGE, "get");
  expect(!packbuf_store_counters(a, &after, NULL) && after.bytes_moved - before.bytes_moved < 2 * 70302 + 4096,
         "%d bytes moved", (int)(after.bytes_moved - before.bytes_moved));
  expect(items[0].status == PACKBUF_OK && items[1].status == PACKBUF_OUT_OF_RANGE &&
             items[2].status == PACKBUF_OUT_OF_RANGE && items[3].status == PACKBUF_OK,
         "statuses");
  expect(items[0].got == 70202 && items[3].got == 70202 && items[3].lease.size == 70202, "got %d", (int)items[0].got);
  for (int i = 0; i < 7; i++) {
    expect(memcmp(back + at, bytes + some[i].offset, some[i].length) == 0 &&
               memcmp((const uint8_t *)items[3].lease.data + at, bytes + some[i].offset, some[i].length) == 0,
           "range %d", i);
    at += some[i].length;
  }
  packbuf_lease_release(&items[3].lease);
  items[0] = item_of("r");
  items[0].ranges = none;
  items[0].into = back;
  expect(!packbuf_batch_get(a, items, 1, soon(), NULL) && items[0].got == 0, "no ranges at all");
  for (uint64_t i = 0; i < 32769; i++) lots[i].offset = i * 100, lots[i].length = i % 30;
  items[0].ranges = lots;
  items[0].range_count = 32768;
  items[0].capacity = MIB;
  expect(!packbuf_batch_get(a, items, 1, soon(), NULL), "32768 ranges");
  at = 0;
  for (uint64_t i = 0; i < 32768; at += lots[i++].length)
    if (memcmp(back + at, bytes + i * 100, lots[i].length) != 0) break;
  expect(at == items[0].got, "32768 ranges are right up to %d", (int)at);
  client_close(a);
  server_stop();
  free(bytes);
  free(back);
  free(lots);
  verdict("ranges: end to end, out of range, and nothing else moves");
}

/* ---- room ---- */

typedef struct later {
  packbuf_store *store;
  const char *key;
  unsigned ms;
  packbuf_status status;
} later;

static void *remove_later(void *context) {
  later *l = (later *)context;
  packbuf_i_sleep_until(packbuf_deadline_in(l->ms));
  l->status = remove_key(l->store, l->key);
  return NULL;
}

static void test_room(void) {
  uint8_t *bytes = (uint8_t *)malloc(20 * MIB);
  packbuf_store *a, *b;
  packbuf_store_info info;
  pthread_t thread;
  uint64_t from, took;
  later l;
  packbuf_status status;
  begin("room");
  server_start(16 * MIB, NULL);
  a = client_open();
  b = client_open();
  fill(bytes, 20 * MIB, 1);
  expect(put_bytes(a, "large", bytes, 20 * MIB, soon()) == PACKBUF_CAPACITY, "larger than the store");
  for (int i = 0; i < 3; i++)
    expect(!put_bytes(a, i == 0 ? "x" : i == 1 ? "y" : "z", bytes, 4 * MIB, soon()), "put %d", i);
  expect((status = put_bytes(a, "w", bytes, 5 * MIB, PACKBUF_NO_WAIT)) == PACKBUF_FULL, "at once: %s",
         packbuf_status_name(status));
  expect((status = put_bytes(a, "w", bytes, 100, PACKBUF_NO_WAIT)) == PACKBUF_OK, "a small one fits: %s",
         packbuf_status_name(status));
  from = packbuf_now();
  status = put_bytes(a, "w", bytes, 4 * MIB, packbuf_deadline_in(200));
  took = (packbuf_now() - from) / 1000000u;
  expect(status == PACKBUF_FULL && took >= 150 && took < 1000, "to the deadline: %s after %d ms",
         packbuf_status_name(status), (int)took);
  l.store = b;
  l.key = "y";
  l.ms = 60;
  expect(pthread_create(&thread, NULL, remove_later, &l) == 0, "thread");
  from = packbuf_now();
  status = put_bytes(a, "w", bytes, 4 * MIB, soon());
  took = (packbuf_now() - from) / 1000000u;
  (void)pthread_join(thread, NULL);
  expect(!status && !l.status && took >= 50 && took < 2000, "when room comes: %s after %d ms",
         packbuf_status_name(status), (int)took);
  expect(!packbuf_store_describe(a, &info, soon(), NULL) && info.size == 16 * MIB && info.used == 12 * MIB &&
             info.objects == 3 && strcmp(info.transport, "tcp") == 0 &&
             strcmp(info.uri, packbuf_server_uri(server)) == 0,
         "describe: %d objects", (int)info.objects);
  { /* small ones that follow at once, when there is no room for them yet */
    packbuf_item items[20];
    expect(!put_bytes(a, "fill", bytes, 4 * MIB, soon()), "filling");
    for (int i = 0; i < 20; i++) {
      items[i] = item_of(keys[i]);
      items[i].from = bytes;
      items[i].size = 50000;
    }
    l.key = "x";
    expect(pthread_create(&thread, NULL, remove_later, &l) == 0, "thread");
    status = packbuf_batch_put(a, items, 20, soon(), NULL);
    (void)pthread_join(thread, NULL);
    expect(!status, "20 small ones: %s", packbuf_status_name(status));
    for (int i = 0; i < 20; i++) {
      packbuf_item one = item_of(keys[i]);
      expect(!packbuf_batch_get(b, &one, 1, soon(), NULL) && one.lease.size == 50000 &&
                 is_filled(one.lease.data, 50000, 1),
             "small %d", i);
      packbuf_lease_release(&one.lease);
    }
  }
  client_close(a);
  client_close(b);
  server_stop();
  free(bytes);
  verdict("room: FULL at once, at the deadline, and waited for; CAPACITY");
}

static uint64_t moved_by(packbuf_store *store) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  expect(!packbuf_store_counters(store, &counters, NULL), "counters");
  return counters.bytes_moved;
}

/* What finds no room has been sent in vain: once, then for a while no more. */
static void test_in_vain(void) {
  uint8_t *bytes = (uint8_t *)malloc(8 * MIB);
  packbuf_store *a;
  uint64_t moved;
  begin("in vain");
  server_start(16 * MIB, NULL);
  a = client_open();
  fill(bytes, 8 * MIB, 9);
  expect(!put_bytes(a, "x", bytes, 8 * MIB, soon()) && !put_bytes(a, "y", bytes, 4 * MIB, soon()) &&
             !put_bytes(a, "z", bytes, 3 * MIB, soon()),
         "puts");
  for (int round = 0; round < 2; round++) {
    moved = moved_by(a);
    expect(put_bytes(a, "w", bytes, 2 * MIB, PACKBUF_NO_WAIT) == PACKBUF_FULL && moved_by(a) - moved < 1000,
           "no room, at once");
    for (int i = 0; i < PACKBUF_I_CAREFUL; i++) expect(!put_bytes(a, "little", bytes, 10, soon()), "a small one");
    moved = moved_by(a);
    expect(put_bytes(a, "w", bytes, 2 * MIB, packbuf_deadline_in(30)) == PACKBUF_FULL, "no room");
    expect(moved_by(a) - moved > 2 * MIB, "it was sent with the request");
    moved = moved_by(a);
    for (int i = 0; i < 10; i++)
      expect(put_bytes(a, "w", bytes, 2 * MIB, packbuf_deadline_in(10)) == PACKBUF_FULL, "no room again");
    expect(moved_by(a) - moved < 10 * 1000, "and not again");
    expect(!remove_key(a, "z"), "room");
    for (int i = 0; i < PACKBUF_I_CAREFUL; i++) {
      packbuf_item item = item_of("w");
      expect(!put_bytes(a, "w", bytes, MIB, soon()) && !packbuf_batch_get(a, &item, 1, soon(), NULL) &&
                 is_filled(item.lease.data, MIB, 9),
             "put %d", i);
      packbuf_lease_release(&item.lease);
    }
    expect(!remove_key(a, "w") && !remove_key(a, "little") && !put_bytes(a, "z", bytes, 3 * MIB, soon()), "full again");
  }
  client_close(a);
  server_stop();
  free(bytes);
  verdict("what finds no room is sent in vain once, then granted before it is sent");
}

static void *release_later(void *context) {
  packbuf_i_sleep_until(packbuf_deadline_in(80));
  packbuf_lease_release((packbuf_lease *)context);
  return NULL;
}

static void test_leases(void) {
  uint8_t bytes[100000];
  packbuf_store *a;
  packbuf_item item = item_of("k"), gone;
  pthread_t thread;
  uint64_t from;
  packbuf_status status;
  begin("leases");
  server_start(16 * MIB, NULL);
  a = client_open();
  fill(bytes, sizeof bytes, 3);
  expect(!put_bytes(a, "k", bytes, sizeof bytes, soon()), "put");
  expect(!packbuf_batch_get(served, &item, 1, soon(), NULL), "a lease in the server's process");
  gone = item_of("k");
  from = packbuf_now();
  status = packbuf_batch_remove(a, &gone, 1, packbuf_deadline_in(100), NULL);
  /* local says NOT_FOUND when it is asked again, so that nobody can wait: see packbuf_i_request_remove */
  expect((status == PACKBUF_LEASED || status == PACKBUF_OK) && packbuf_now() - from < 1000000000u,
         "removing what is leased: %s", packbuf_status_name(status));
  expect(stat_of(a, "k", NULL) == PACKBUF_NOT_FOUND && is_filled(item.lease.data, sizeof bytes, 3),
         "it is not found, the lease is good");
  packbuf_lease_release(&item.lease);
  expect(!put_bytes(a, "k", bytes, sizeof bytes, soon()) && !packbuf_batch_get(served, &item, 1, soon(), NULL),
         "again");
  { /* the lease ends while the remove waits */
    static packbuf_lease lease;
    lease = item.lease;
    expect(pthread_create(&thread, NULL, release_later, &lease) == 0, "thread");
    gone = item_of("k");
    status = packbuf_batch_remove(a, &gone, 1, soon(), NULL);
    (void)pthread_join(thread, NULL);
    expect(!status, "removing until the lease ends: %s", packbuf_status_name(status));
  }
  client_close(a);
  server_stop();
  verdict("removing what is leased");
}

static void test_quotas(void) {
  uint8_t *bytes = (uint8_t *)calloc(1, 4 * MIB);
  packbuf_server_options options;
  packbuf_store *a, *b;
  packbuf_item item, kept;
  packbuf_status status;
  begin("quotas");
  memset(&options, 0, sizeof options);
  options.quota = 3 * MIB;
  server_start(32 * MIB, &options);
  a = client_open();
  b = client_open();
  expect(!put_bytes(a, "1", bytes, 2 * MIB, soon()), "below it");
  expect((status = put_bytes(a, "2", bytes, 2 * MIB, PACKBUF_NO_WAIT)) == PACKBUF_QUOTA, "beyond it: %s",
         packbuf_status_name(status));
  expect(!put_bytes(b, "3", bytes, 2 * MIB, soon()), "another client");
  expect(!put_bytes(a, "4", bytes, MIB, PACKBUF_NO_WAIT), "what is left of it");
  expect(!remove_key(b, "1"), "remove");
  expect(!put_bytes(a, "2", bytes, 2 * MIB, soon()), "it is given back");
  expect(!packbuf_store_quota(a, 3, MIB, NULL), "a quota of answers");
  kept = item_of("4");
  kept.account = 3;
  expect(!packbuf_batch_get(a, &kept, 1, soon(), NULL), "got within it");
  item = item_of("4");
  item.account = 3;
  expect((status = packbuf_batch_get(a, &item, 1, PACKBUF_NO_WAIT, NULL)) == PACKBUF_QUOTA, "beyond it: %s",
         packbuf_status_name(status));
  expect((status = packbuf_batch_get(a, &item, 1, packbuf_deadline_in(50), NULL)) == PACKBUF_QUOTA,
         "beyond it, waiting: %s", packbuf_status_name(status));
  item.account = 4;
  expect(!packbuf_batch_get(a, &item, 1, soon(), NULL), "of another account");
  packbuf_lease_release(&item.lease);
  packbuf_lease_release(&kept.lease);
  item.account = 3;
  expect(!packbuf_batch_get(a, &item, 1, soon(), NULL), "after its release");
  packbuf_lease_release(&item.lease);
  client_close(a);
  client_close(b);
  server_stop();
  free(bytes);
  verdict("quotas of what clients put and of what they hold");
}

/* ---- how both ends wait, and send ---- */

static void expect_reno(int fd, const char *whose) {
  char name[16] = "";
  socklen_t size = sizeof name;
  expect(!getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size) && strncmp(name, "reno", 5) == 0, "%s: %.16s", whose,
         name);
}

static void test_waiting(void) {
  packbuf_i_patience p;
  packbuf_i_tcp *tcp = NULL;
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_i_address address;
  unsigned looked = 0;
  int listener = -1, near = -1, far = -1;
  begin("waiting");
  memset(&p, 0, sizeof p);
  for (int i = 0; i < 100; i++) packbuf_i_patience_start(&p), looked += p.until != 0;
  expect(looked == 0 && !packbuf_i_patience_more(&p, 0), "on one core nobody looks");
  p.able = 1;
  for (int i = 0; i < 10 * PACKBUF_I_PROBES; i++) {
    packbuf_i_patience_start(&p);
    if (!p.until) continue;
    looked++;
    expect(packbuf_i_patience_more(&p, 0) && p.until, "it looks again");
    p.until = 1;
    expect(packbuf_i_patience_more(&p, 0) && !p.until && !packbuf_i_patience_more(&p, 0), "and then sleeps");
  }
  expect(looked == 10, "where it does not pay it looks rarely: %u", looked);
  while (!p.until) packbuf_i_patience_start(&p);
  expect(!packbuf_i_patience_more(&p, 1) && p.credit == 0, "what is there at once earns nothing");
  p.until = 0;
  while (!p.until) packbuf_i_patience_start(&p);
  for (unsigned i = 1; i < 30; i++) {
    expect(p.until && packbuf_i_patience_more(&p, 0) && !packbuf_i_patience_more(&p, 1), "it comes");
    expect(p.credit == (i < PACKBUF_I_CREDIT ? i : (unsigned)PACKBUF_I_CREDIT), "credit %u", p.credit);
    packbuf_i_patience_start(&p);
  }
  for (looked = 0; p.until; looked++) {
    p.until = 1;
    expect(packbuf_i_patience_more(&p, 0), "nothing comes");
    packbuf_i_patience_start(&p);
  }
  expect(looked == PACKBUF_I_CREDIT / 2, "credit is used up after %u", looked);
  server_start(16 * MIB, NULL);
  expect(!packbuf_i_tcp_open((void **)&tcp, packbuf_server_uri(server), &options, NULL), "open");
  for (unsigned i = 0; i < tcp->peer_count; i++)
    if (tcp->peers[i].fd >= 0) expect_reno(tcp->peers[i].fd, "a client's end on loopback");
  packbuf_i_tcp_close(tcp);
  server_stop();
  memset(&address, 0, sizeof address);
  address.as.four.sin_family = AF_INET;
  address.as.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.size = sizeof address.as.four;
  expect(
      !packbuf_i_address_listen(&address, &listener, NULL) && !packbuf_i_address_connect(&address, soon(), &near, NULL),
      "a connection");
  (void)fcntl(listener, F_SETFL, 0);
  far = accept(listener, NULL, NULL);
  expect_reno(near, "one end");
  expect_reno(far, "the other");
  (void)close(near), (void)close(far), (void)close(listener);
  verdict("both ends look for a while where that pays, and do not pace on loopback");
}

/* ---- secrets and addresses ---- */

static void test_secrets(void) {
  packbuf_server_options options;
  packbuf_server *other = NULL;
  packbuf_store *a = NULL;
  packbuf_error error;
  char uri[PACKBUF_MAX_URI + 1];
  uint64_t from;
  packbuf_status status;
  begin("secrets");
  memset(&options, 0, sizeof options);
  options.secret = "open sesame";
  options.secret_size = 11;
  server_start(16 * MIB, &options);
  strcpy(uri, packbuf_server_uri(server));
  status = client_open_at(uri, "open sesame", &a, &error);
  expect(!status && !put_bytes(a, "k", "v", 1, soon()), "the right secret: %s", packbuf_status_name(status));
  client_close(a);
  expect(client_open_at(uri, NULL, &a, &error) == PACKBUF_DENIED && !a, "none");
  expect(client_open_at(uri, "open sesamE", &a, &error) == PACKBUF_DENIED && strcmp(error.message, "wrong secret") == 0,
         "a wrong one");
  expect(client_open_at(uri, "Open sesame", &a, &error) == PACKBUF_DENIED, "a wrong one");
  expect(client_open_at(uri, "open", &a, &error) == PACKBUF_DENIED, "a short one");
  packbuf_i_sleep_until(packbuf_deadline_in(50));
  from = packbuf_now();
  expect(client_open_at(uri, "open sesam", &a, &error) == PACKBUF_DENIED && packbuf_now() - from > 400000000u,
         "the fourth waits");
  status = client_open_at(uri, "open sesame", &a, &error);
  expect(!status, "and the right one is let in: %s", packbuf_status_name(status));
  client_close(a);
  from = packbuf_now();
  status = client_open_at(uri, "open sesame", &a, &error);
  expect(!status && packbuf_now() - from < 400000000u, "and then without waiting");
  client_close(a);
  memset(&options, 0, sizeof options);
  expect(packbuf_server_open(served, "tcp://0.0.0.0:0", &options, &other, &error) == PACKBUF_DENIED && !other,
         "beyond loopback without a secret");
  options.secret = "s";
  options.secret_size = 1;
  status = packbuf_server_open(served, "tcp://0.0.0.0:0", &options, &other, &error);
  expect(!status && strncmp(packbuf_server_uri(other), "tcp://0.0.0.0:", 14) == 0, "beyond loopback with one: %s",
         packbuf_status_name(status));
  expect(!packbuf_server_close(other, soon(), NULL), "close");
  expect(packbuf_server_open(served, "tcp://nonsense", NULL, &other, &error) == PACKBUF_INVALID_ARGUMENT, "no port");
  expect(packbuf_server_open(served, "tcp://:70000", NULL, &other, &error) == PACKBUF_INVALID_ARGUMENT,
         "a port that is none");
  expect(packbuf_server_open(served, "shm:x", NULL, &other, &error) == PACKBUF_INVALID_ARGUMENT,
         "no scheme of servers");
  expect(packbuf_server_open(served, uri, NULL, &other, &error) == PACKBUF_SYSTEM && error.offset == EADDRINUSE,
         "a port that is taken");
  server_stop();
  expect(client_open_at(uri, NULL, &a, &error) == PACKBUF_DISCONNECTED, "nobody listens");
  server_start(MIB, NULL);
  expect(client_open_at(packbuf_server_uri(server), "open sesame", &a, &error) == PACKBUF_DENIED,
         "a server that cannot prove who it is");
  server_stop();
  verdict("secrets, and where a server listens");
}

/* ---- arguments and limits of the system ---- */

static void test_odd_arguments(void) {
  packbuf_store *a, *none = NULL;
  packbuf_item items[4];
  packbuf_ref about;
  packbuf_error error;
  static uint8_t secret[PACKBUF_I_SECRET], text[PACKBUF_I_SECRET + 2];
  char path[] = "/tmp/packbuf.secret.XXXXXX";
  size_t size = 0;
  const int fd = mkstemp(path);
  begin("odd arguments");
  expect(packbuf_store_open(NULL, NULL, &none, &error) == PACKBUF_INVALID_ARGUMENT && !none, "no URI");
  server_start(MIB, NULL);
  a = client_open();
  memset(&about, 0, sizeof about);
  about.kind = 7;
  for (int i = 0; i < 4; i++) {
    items[i] = item_of(i == 0 ? "0" : i == 1 ? "1" : i == 2 ? "2" : "3");
    items[i].from = text;
    items[i].size = i == 1 ? (uint64_t)1 << 63 : i == 2 ? UINT64_MAX : 5;
    items[i].about = i == 3 ? &about : NULL;
  }
  expect(packbuf_batch_put(a, items, 4, soon(), &error) == PACKBUF_CAPACITY && error.row == 1, "a put of 2^63 bytes");
  expect(!items[0].status && items[2].status == PACKBUF_CAPACITY && items[3].status == PACKBUF_INVALID_ARGUMENT,
         "and its neighbours: %s, %s, %s", packbuf_status_name(items[0].status), packbuf_status_name(items[2].status),
         packbuf_status_name(items[3].status));
  client_close(a);
  server_stop();
  memset(text, 's', sizeof text);
  text[PACKBUF_I_SECRET] = '\n';
  expect(fd >= 0 && write(fd, text, PACKBUF_I_SECRET + 1) == PACKBUF_I_SECRET + 1 &&
             setenv("PACKBUF_SECRET_FILE", path, 1) == 0,
         "a file");
  expect(!packbuf_i_secret_find(NULL, 0, secret, &size, &error) && size == PACKBUF_I_SECRET,
         "a secret of 1024 bytes and the end of its line");
  expect(pwrite(fd, "s", 1, PACKBUF_I_SECRET) == 1 &&
             packbuf_i_secret_find(NULL, 0, secret, &size, &error) == PACKBUF_INVALID_ARGUMENT,
         "one of 1025 is not cut");
  (void)unsetenv("PACKBUF_SECRET_FILE");
  (void)close(fd);
  (void)unlink(path);
  verdict("sizes, kinds, URIs and secrets that cannot be");
}

/* Without descriptors clients are turned away: the queue of those who wait does not grow, and nothing turns in a
 * circle. */
static void test_no_descriptors(void) {
  enum { CLIENTS = 6 };
  packbuf_i_address address[PACKBUF_I_ADDRESSES];
  const struct timeval patience = {5, 0};
  struct rlimit before, few;
  packbuf_store *a;
  const char *at;
  unsigned count;
  int fds[CLIENTS], away = 0;
  begin("no descriptors");
  server_start(MIB, NULL);
  at = packbuf_server_uri(server) + 6;
  expect(!packbuf_i_addresses_find(at, strlen(at), address, &count, NULL), "address");
  for (int i = 0; i < CLIENTS; i++) fds[i] = socket(AF_INET, SOCK_STREAM, 0);
  expect(getrlimit(RLIMIT_NOFILE, &before) == 0, "limit");
  few = before;
  few.rlim_cur = (rlim_t)fds[CLIENTS - 1] + 1;
  expect(setrlimit(RLIMIT_NOFILE, &few) == 0, "few");
  for (int i = 0; i < CLIENTS; i++) {
    char byte;
    (void)setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    expect(connect(fds[i], &address[0].as.any, address[0].size) == 0, "connect");
    away += recv(fds[i], &byte, 1, 0) == 0 || errno == ECONNRESET;
  }
  expect(away == CLIENTS, "%d of %d were turned away", away, CLIENTS);
  expect(setrlimit(RLIMIT_NOFILE, &before) == 0, "as before");
  for (int i = 0; i < CLIENTS; i++) (void)close(fds[i]);
  a = client_open();
  expect(!put_bytes(a, "k", "v", 1, soon()), "and then served again");
  client_close(a);
  server_stop();
  verdict("a server without descriptors turns clients away");
}

/* ---- strangers ---- */

/* A connection of its own, which says nothing yet. */
static int stranger(void) {
  packbuf_i_address address[PACKBUF_I_ADDRESSES];
  const char *const at = packbuf_server_uri(server) + 6;
  unsigned count;
  int fd = -1;
  expect(!packbuf_i_addresses_find(at, strlen(at), address, &count, NULL), "address");
  fd = socket(AF_INET, SOCK_STREAM, 0);
  expect(connect(fd, &address[0].as.any, address[0].size) == 0, "connect");
  return fd;
}

/* All connections taken by some that say nothing: they have less time for that. */
static void test_lurkers(void) {
  enum { MOST = 16 };
  packbuf_server_options options;
  packbuf_store *a = NULL;
  uint64_t begun = packbuf_now();
  int fds[MOST];
  begin("lurkers");
  memset(&options, 0, sizeof options);
  options.connections = MOST;
  server_start(MIB, &options);
  for (int i = 0; i < MOST; i++) fds[i] = stranger();
  expect(client_open_at(packbuf_server_uri(server), NULL, &a, NULL) != PACKBUF_OK, "there is room for one more");
  while (!a && packbuf_now() - begun < 6000000000u) {
    packbuf_i_sleep_until(packbuf_deadline_in(100));
    (void)client_open_at(packbuf_server_uri(server), NULL, &a, NULL);
  }
  expect(a && !put_bytes(a, "k", "v", 1, soon()), "nobody else came in for 6 s");
  if (a) client_close(a);
  for (int i = 0; i < MOST; i++) (void)close(fds[i]);
  server_stop();
  verdict("connections that say nothing do not keep others out for long");
}

typedef struct flooder {
  int fd;
  uint32_t stop;
} flooder;

/* Asks for lists as fast as they are taken, and reads them. */
static void *flood(void *context) {
  const flooder *f = (const flooder *)context;
  static const char nobody[] = "nobody/has/this";
  uint8_t frame[256], lists[32768], heard[65536];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_list_ask ask;
  size_t size, count = 0, at = 0;
  memset(&ask, 0, sizeof ask);
  ask.most = 1;
  memcpy(ask.prefix, nobody, sizeof nobody);
  packbuf_i_list_write(&body, &ask);
  size = packbuf_i_frame_end(frame, &body, PACKBUF_I_LIST, 0, 1, 0);
  for (; count + size <= sizeof lists; count += size) memcpy(lists + count, frame, size);
  while (!PACKBUF_I_LOAD(&f->stop)) {
    struct pollfd ready = {f->fd, POLLIN | POLLOUT, 0};
    ssize_t done;
    if (poll(&ready, 1, 100) <= 0) continue;
    if (ready.revents & POLLIN && recv(f->fd, heard, sizeof heard, MSG_DONTWAIT) == 0) break;
    done = ready.revents & POLLOUT ? send(f->fd, lists + at, count - at, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (done > 0) at = (at + (size_t)done) % count;
  }
  return NULL;
}

/* A connection that has said HELLO, to be flooded with. */
static int flood_connection(void) {
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_hello hello;
  size_t size;
  const int fd = stranger();
  memset(&hello, 0, sizeof hello);
  hello.least = hello.most = 1;
  packbuf_i_hello_write(&body, &hello);
  size = packbuf_i_frame_end(frame, &body, PACKBUF_I_HELLO, 0, 0, 0);
  expect(send(fd, frame, size, MSG_NOSIGNAL) == (ssize_t)size, "hello");
  return fd;
}

static uint64_t bytes_moved(void) {
  packbuf_counters counters;
  expect(!packbuf_server_counters(server, &counters, NULL), "counters");
  return counters.bytes_moved;
}

/* Small words that take long, from two at once: who shares their event loop waits for few of them, not for all that the
 * server could read of each at once. */
static void test_floods(void) {
  enum { OBJECTS = 16000, ROUNDS = 10, FLOODERS = 2 };
  packbuf_server_options options;
  packbuf_store *a;
  pthread_t threads[FLOODERS];
  flooder flooders[FLOODERS];
  char key[32];
  uint64_t moved;
  begin("floods");
  memset(&options, 0, sizeof options);
  options.threads = 1;
  server_start(80 * MIB, &options);
  for (int i = 0; i < OBJECTS; i++) {
    snprintf(key, sizeof key, "nobody/has/that/%d", i);
    expect(!put_bytes(served, key, "x", 1, soon()), "put");
  }
  a = client_open();
  for (int i = 0; i < FLOODERS; i++) flooders[i].fd = flood_connection(), flooders[i].stop = 0;
  moved = bytes_moved();
  for (int i = 0; i < FLOODERS; i++) {
    const int begun = pthread_create(&threads[i], NULL, flood, &flooders[i]) == 0;
    expect(begun, "thread");
  }
  for (uint64_t until = soon(); bytes_moved() - moved < 4 * FLOODERS * PACKBUF_I_STAGE && packbuf_now() < until;)
    packbuf_i_sleep_until(packbuf_deadline_in(10));
  expect(bytes_moved() - moved >= 4 * FLOODERS * PACKBUF_I_STAGE, "little was asked for");
  moved = bytes_moved();
  for (int i = 0; i < ROUNDS; i++) expect(!put_bytes(a, "k", "v", 1, soon()), "a put");
  moved = bytes_moved() - moved;
  expect(moved < ROUNDS * FLOODERS * PACKBUF_I_STAGE, "%d bytes were moved during %d puts", (int)moved, ROUNDS);
  for (int i = 0; i < FLOODERS; i++) {
    PACKBUF_I_STORE(&flooders[i].stop, 1);
    (void)pthread_join(threads[i], NULL);
    (void)close(flooders[i].fd);
  }
  client_close(a);
  server_stop();
  verdict("a flood of lists does not keep others waiting");
}

/* ---- metrics ---- */

/* What HTTP answers, as text. */
static void http(uint16_t port, const char *request, char *answer, size_t room) {
  packbuf_i_address address;
  struct sockaddr_in *four = &address.as.four;
  size_t size = 0;
  int fd = -1;
  memset(&address, 0, sizeof address);
  four->sin_family = AF_INET;
  four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  four->sin_port = htons(port);
  address.size = sizeof *four;
  answer[0] = 0;
  if (packbuf_i_address_connect(&address, soon(), &fd, NULL)) return;
  (void)fcntl(fd, F_SETFL, 0);
  expect(send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request), "request");
  while (size + 1 < room) {
    const ssize_t some = recv(fd, answer + size, room - 1 - size, 0);
    if (some <= 0) break;
    size += (size_t)some;
  }
  answer[size] = 0;
  (void)close(fd);
}

static void test_metrics(void) {
  static char answer[65536];
  packbuf_server_options options;
  struct sockaddr_in at;
  socklen_t size = sizeof at;
  packbuf_store *a;
  uint16_t port;
  begin("metrics");
  memset(&options, 0, sizeof options);
  options.metrics = ":0";
  server_start(16 * MIB, &options);
  expect(
      getsockname(server->metrics, (struct sockaddr *)&at, &size) == 0 && at.sin_addr.s_addr == htonl(INADDR_LOOPBACK),
      "its address");
  port = ntohs(at.sin_port);
  a = client_open();
  expect(!put_bytes(a, "k", "value", 5, soon()), "put");
  http(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", answer, sizeof answer);
  expect(strncmp(answer, "HTTP/1.0 200 OK\r\n", 17) == 0 &&
             strstr(answer, "\npackbuf_puts_total{server=\"tcp://127.0.0.1:") &&
             strstr(answer, "\npackbuf_store_objects{"),
         "metrics: %.60s", answer);
  expect(strstr(answer, "\"} 1\n") && strstr(answer, "packbuf_bytes_put_total"), "numbers");
  http(port, "GET / HTTP/1.0\r\n\r\n", answer, sizeof answer);
  expect(strncmp(answer, "HTTP/1.0 404", 12) == 0, "another path: %.60s", answer);
  http(port, "POST /metrics HTTP/1.0\n\n", answer, sizeof answer);
  expect(strncmp(answer, "HTTP/1.0 404", 12) == 0, "another method");
  memset(answer, 'x', 5000);
  answer[5000] = 0;
  {
    static char long_request[5001];
    memcpy(long_request, answer, 5001);
    http(port, long_request, answer, sizeof answer);
    expect(answer[0] == 0, "5000 bytes without an end");
  }
  expect(!put_bytes(a, "k", "value", 5, soon()), "clients go on");
  client_close(a);
  server_stop();
  verdict("metrics by HTTP");
}

/* ---- servers that do not answer, or are gone ---- */

static void test_deadlines(void) {
  packbuf_i_address address;
  struct sockaddr_in *four = &address.as.four;
  packbuf_store *a = NULL;
  packbuf_error error;
  packbuf_status status;
  char uri[64], key[2] = "k";
  uint64_t from, took;
  int listener = -1;
  static uint8_t bytes[300000];
  begin("deadlines");
  memset(&address, 0, sizeof address);
  four->sin_family = AF_INET;
  four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.size = sizeof *four;
  expect(!packbuf_i_address_listen(&address, &listener, NULL), "a socket that nobody serves");
  snprintf(uri, sizeof uri, "tcp://127.0.0.1:%d", ntohs(four->sin_port));
  from = packbuf_now();
  status = client_open_at(uri, NULL, &a, &error);
  took = (packbuf_now() - from) / 1000000u;
  expect(status == PACKBUF_TIMEOUT && took >= 1900 && took < 4000, "a server that does not greet: %s after %d ms",
         packbuf_status_name(status), (int)took);
  (void)close(listener);
  server_start(16 * MIB, NULL);
  a = client_open();
  expect(!put_bytes(a, key, bytes, 10, soon()), "put");
  { /* both loops are stopped: they wait for their locks of what comes in */
    for (unsigned i = 0; i < server->loop_count; i++) {
      packbuf_i_locked(&server->loops[i].lock);
      packbuf_i_loop_wake(&server->loops[i]);
    }
    packbuf_i_sleep_until(packbuf_deadline_in(50));
    for (int i = 0; i < 3; i++) {
      packbuf_item item = item_of(key);
      uint8_t back[16];
      item.into = back;
      item.capacity = sizeof back;
      from = packbuf_now();
      status = i == 0   ? packbuf_batch_get(a, &item, 1, packbuf_deadline_in(200), NULL)
               : i == 1 ? put_bytes(a, "late", bytes, sizeof bytes, packbuf_deadline_in(200))
                        : packbuf_batch_stat(a, &item, 1, packbuf_deadline_in(200), NULL);
      took = (packbuf_now() - from) / 1000000u;
      expect(status == PACKBUF_TIMEOUT && took >= 190 && took < 1000, "operation %d: %s after %d ms", i,
             packbuf_status_name(status), (int)took);
    }
    for (unsigned i = 0; i < server->loop_count; i++) packbuf_i_unlocked(&server->loops[i].lock);
  }
  status = put_bytes(a, key, bytes, 20, soon());
  expect(!status, "afterwards it goes on: %s", packbuf_status_name(status));
  expect(stat_of(a, "late", NULL) == PACKBUF_NOT_FOUND, "what timed out is not there");
  from = packbuf_now();
  expect(put_bytes(a, key, bytes, 20, from - 1) == PACKBUF_TIMEOUT && packbuf_now() - from < 100000000u,
         "a deadline that has passed");
  { /* the server is gone, and another one is there */
    packbuf_counters counters;
    memset(&counters, 0, sizeof counters);
    strcpy(uri, packbuf_server_uri(server));
    expect(!packbuf_server_close(server, packbuf_deadline_in(500), NULL), "close");
    status = put_bytes(a, key, bytes, 20, packbuf_deadline_in(300));
    expect(status == PACKBUF_DISCONNECTED, "nobody is there: %s", packbuf_status_name(status));
    expect(!packbuf_server_open(served, uri, NULL, &server, &error), "a server again");
    status = put_bytes(a, key, bytes, 30, soon());
    expect(!status, "it connects anew: %s", packbuf_status_name(status));
    expect(!packbuf_store_counters(a, &counters, NULL) && counters.reconnects >= 1, "which is counted");
    expect(!packbuf_server_close(server, packbuf_deadline_in(500), NULL) &&
               !packbuf_server_open(served, uri, NULL, &server, &error),
           "one more, unseen by the client");
    status = put_bytes(a, key, bytes, 40, soon());
    expect(!status, "an idle connection that has ended is not used: %s", packbuf_status_name(status));
  }
  client_close(a);
  server_stop();
  verdict("deadlines hold against servers that do not answer, and servers come back");
}

/* ---- a process that serves, and forks ---- */

/* A client's socket to the server, greeted. */
static int raw_client(void) {
  packbuf_i_address address[PACKBUF_I_ADDRESSES];
  packbuf_i_hello hello;
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  const char *at = packbuf_server_uri(server) + 6;
  unsigned count;
  int fd = -1;
  expect(!packbuf_i_addresses_find(at, strlen(at), address, &count, NULL) &&
             !packbuf_i_address_connect(&address[0], soon(), &fd, NULL),
         "a socket");
  (void)fcntl(fd, F_SETFL, 0);
  memset(&hello, 0, sizeof hello);
  hello.least = hello.most = 1;
  packbuf_i_hello_write(&body, &hello);
  expect(send(fd, frame, packbuf_i_frame_end(frame, &body, PACKBUF_I_HELLO, 0, 0, 0), MSG_NOSIGNAL) > 0, "hello");
  expect(recv(fd, frame, 116, MSG_WAITALL) == 116 && frame[4] == PACKBUF_I_WELCOME, "welcome");
  return fd;
}

/* A child has all sockets of its parent: what the server closes stays open, and still has events. */
static void test_nonsense_forked(void) {
  int fds[8];
  pid_t child;
  begin("forked");
  server_start(MIB, NULL);
  for (int i = 0; i < 8; i++) fds[i] = raw_client();
  child = fork();
  if (child == 0) {
    (void)pause();
    _exit(0);
  }
  for (int i = 0; i < 8; i++)
    expect(send(fds[i], "no frame of this protocol, all forty of them", 44, MSG_NOSIGNAL) == 44, "nonsense");
  for (int i = 0; i < 1000 && PACKBUF_I_LOAD(&server->connections); i++) packbuf_i_sleep_until(packbuf_deadline_in(10));
  expect(PACKBUF_I_LOAD(&server->connections) == 0, "they are closed");
  for (int i = 0; i < 8; i++) (void)send(fds[i], "more", 4, MSG_NOSIGNAL);
  packbuf_i_sleep_until(packbuf_deadline_in(50));
  expect(PACKBUF_I_LOAD(&server->connections) == 0, "once");
  (void)kill(child, SIGKILL);
  (void)waitpid(child, NULL, 0);
  for (int i = 0; i < 8; i++) (void)close(fds[i]);
  server_stop();
  verdict("connections that end while a child of the server's process has them too");
}

/* ---- servers that say what they should not ---- */

typedef struct liar {
  int listener, kind, stopped;
  uint64_t request;
} liar;

/* Reads one frame without its payload; its request. */
static uint64_t liar_hear(int fd) {
  uint8_t head[40], body[8192];
  packbuf_i_frame frame;
  if (recv(fd, head, 40, MSG_WAITALL) != 40 || packbuf_i_frame_read(head, &frame) || frame.body > sizeof body) return 0;
  if (frame.body && recv(fd, body, frame.body, MSG_WAITALL) != (ssize_t)frame.body) return 0;
  return frame.request;
}

static void liar_say(int fd, uint8_t *frame, const packbuf_i_wire_to *body, unsigned type, uint64_t items,
                     uint64_t request, uint64_t payload) {
  const size_t size = packbuf_i_frame_end(frame, body, type, items, request, payload);
  (void)send(fd, frame, size, MSG_NOSIGNAL);
  if (payload) (void)send(fd, "0123456789", payload < 10 ? (size_t)payload : 10, MSG_NOSIGNAL);
}

static void liar_result(int fd, uint64_t request, uint16_t index, packbuf_status status, uint64_t length,
                        uint64_t follows) {
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_result result;
  memset(&result, 0, sizeof result);
  result.index = index;
  result.status = (uint16_t)status;
  result.follows = follows;
  result.stat.length = length;
  result.stat.generation = 5;
  packbuf_i_result_write(&body, &result);
  liar_say(fd, frame, &body, PACKBUF_I_RESULT, 1, request, 0);
}

static void liar_data(int fd, uint64_t request, uint64_t offset, uint64_t size) {
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_data_write(&body, 0, offset);
  liar_say(fd, frame, &body, PACKBUF_I_DATA, 1, request, size);
}

static void liar_answer(int fd, int kind, uint64_t request) {
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  switch (kind) {
    case 0: liar_result(fd, request, 0, PACKBUF_OK, 10, 10), liar_data(fd, request, 0, 10); break; /* as it should be */
    case 1: liar_result(fd, request, 0, PACKBUF_OK, 10, 9), liar_data(fd, request, 0, 9); break;       /* short */
    case 2: liar_result(fd, request, 0, PACKBUF_OK, 100, 100); break; /* more than there is room for */
    case 3:
      liar_result(fd, request, 0, PACKBUF_OK, 10, 5), liar_data(fd, request, 0, 10);
      break;                                                           /* more than was announced */
    case 4: liar_data(fd, request, 0, 10); break;                      /* before it was announced */
    case 5: liar_result(fd, request, 1, PACKBUF_OK, 10, 0); break;     /* of another item */
    case 6: liar_result(fd, request + 1, 0, PACKBUF_OK, 10, 0); break; /* of another request */
    case 7: liar_result(fd, request, 0, PACKBUF_OK, 10, 10), liar_data(fd, request, 3, 7); break;      /* with a gap */
    case 8:
      liar_result(fd, request, 0, PACKBUF_NOT_FOUND, 0, 0), liar_result(fd, request, 0, PACKBUF_OK, 0, 0);
      break; /* answered; the rest comes too late */
    case 9:
      packbuf_i_bye_write(&body, PACKBUF_OK, "no more"), liar_say(fd, frame, &body, PACKBUF_I_BYE, 0, 0, 0);
      break;
    case 10: liar_say(fd, frame, &body, PACKBUF_I_CANCEL, 0, request, 0); break; /* a client's frame */
    case 11:
      packbuf_i_wire_give16(&body, 0), liar_say(fd, frame, &body, PACKBUF_I_GRANT, 1, request, 0);
      break; /* of a get */
    case 12: (void)shutdown(fd, SHUT_WR); break;
    case 13:
      liar_say(fd, frame, &body, PACKBUF_I_PING, 0, 0, 0), liar_result(fd, request, 0, PACKBUF_OK, 10, 10),
          liar_data(fd, request, 0, 10);
      break;
    default: /* puts: granted, and answered before the bytes have come */
      packbuf_i_wire_give16(&body, 0);
      liar_say(fd, frame, &body, PACKBUF_I_GRANT, 1, request, 0);
      packbuf_i_sleep_until(packbuf_deadline_in(30));
      liar_result(fd, request, 0, PACKBUF_FULL, 0, 0);
      break;
  }
}

static void *lie(void *context) {
  liar *l = (liar *)context;
  int fds[40], count = 0;
  while (count < 40) {
    uint8_t frame[256];
    packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
    packbuf_i_welcome welcome;
    uint64_t request;
    const int fd = accept(l->listener, NULL, NULL);
    if (fd < 0) break;
    fds[count++] = fd;
    memset(&welcome, 0, sizeof welcome);
    welcome.version = 1;
    welcome.most_items = welcome.most_requests = 16;
    welcome.proof = l->kind == 15;
    (void)liar_hear(fd);
    packbuf_i_welcome_write(&body, &welcome);
    liar_say(fd, frame, &body, PACKBUF_I_WELCOME, 0, 0, 0);
    request = liar_hear(fd);
    if (l->kind == 15) { /* a proof that is none */
      static const uint8_t zeros[32] = {0};
      body = packbuf_i_frame_body(frame, sizeof frame);
      packbuf_i_wire_give(&body, zeros, sizeof zeros);
      liar_say(fd, frame, &body, PACKBUF_I_PROVEN, 0, 0, 0);
    }
    if (!request) continue;
    liar_answer(fd, l->kind, request);
  }
  while (count) (void)close(fds[--count]);
  return NULL;
}

static void test_liars(void) {
  static const packbuf_status expected[] = {
      PACKBUF_OK,       PACKBUF_SHORT_READ, PACKBUF_PROTOCOL,     PACKBUF_PROTOCOL,  PACKBUF_PROTOCOL,
      PACKBUF_PROTOCOL, PACKBUF_PROTOCOL,   PACKBUF_PROTOCOL,     PACKBUF_NOT_FOUND, PACKBUF_DISCONNECTED,
      PACKBUF_PROTOCOL, PACKBUF_PROTOCOL,   PACKBUF_DISCONNECTED, PACKBUF_OK,        PACKBUF_FULL};
  uint8_t *bytes = (uint8_t *)calloc(1, 32 * MIB);
  begin("liars");
  for (int kind = 0; kind < 16; kind++) {
    packbuf_i_address address;
    packbuf_i_tcp *tcp = NULL;
    packbuf_store_options options = packbuf_default_store_options();
    packbuf_pool *pool = NULL;
    packbuf_pool_options small;
    packbuf_i_running running;
    packbuf_store *store;
    packbuf_i_peer *peer = NULL;
    pthread_t thread;
    char uri[64];
    liar l;
    memset(&l, 0, sizeof l);
    memset(&address, 0, sizeof address);
    memset(&small, 0, sizeof small);
    memset(&running, 0, sizeof running);
    address.as.four.sin_family = AF_INET;
    address.as.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.size = sizeof address.as.four;
    expect(!packbuf_i_address_listen(&address, &l.listener, NULL), "listen");
    (void)fcntl(l.listener, F_SETFL, 0);
    l.kind = kind;
    snprintf(uri, sizeof uri, "tcp://127.0.0.1:%d", ntohs(address.as.four.sin_port));
    expect(pthread_create(&thread, NULL, lie, &l) == 0, "thread");
    small.size = MIB;
    expect(!packbuf_pool_open(&small, &pool, NULL), "pool");
    options.pool = pool;
    if (kind == 15) { /* it wants a proof, and has none */
      packbuf_error error;
      packbuf_status status;
      options.secret = "secret";
      options.secret_size = 6;
      status = packbuf_i_tcp_open((void **)&tcp, uri, &options, &error);
      expect(status == PACKBUF_DENIED && strcmp(error.message, "the server does not know the secret") == 0,
             "liar 15: %s", packbuf_status_name(status));
      (void)shutdown(l.listener, SHUT_RDWR);
      (void)pthread_join(thread, NULL);
      (void)close(l.listener);
      expect(!packbuf_pool_close(pool, NULL), "pool");
      break;
    }
    /* the driver alone: opening a handle asks the server what it has */
    expect(!packbuf_i_tcp_open((void **)&tcp, uri, &options, NULL), "open");
    store = (packbuf_store *)calloc(1, sizeof *store);
    (void)packbuf_i_lock_start(&store->lock);
    (void)packbuf_i_signal_start(&store->changed);
    store->leases.before = store->leases.after = &store->leases;
    for (unsigned i = 0; i < PACKBUF_ACCOUNTS; i++) store->quota[i] = UINT64_MAX;
    store->driver = &packbuf_i_tcp_driver;
    store->state = tcp;
    store->capabilities = tcp->capabilities;
    store->holder.lease_back = packbuf_i_lease_back;
    store->allocator = packbuf_i_plain_heap;
    for (int leased = 0; leased < 2; leased++) {
      packbuf_item item = item_of("k");
      if (kind == 14) item.from = bytes, item.size = 32 * MIB;
      else if (!leased) item.into = bytes, item.capacity = 20;
      memset(bytes + 20, 0xAA, 10);
      packbuf_i_run_items(store, kind == 14 ? PACKBUF_PUT : PACKBUF_GET, &item, 1, packbuf_deadline_in(2000), NULL);
      if (leased && kind == 2)
        expect(item.status == PACKBUF_TIMEOUT, "liar 2 with a lease: %s", packbuf_status_name(item.status));
      else
        expect(item.status == expected[kind], "liar %d, %s: %s", kind, leased ? "leased" : "into",
               packbuf_status_name(item.status));
      expect(kind == 14 || bytes[20] == 0xAA, "liar %d writes past the end", kind);
      expect(item.status || kind == 14 || memcmp(leased ? item.lease.data : bytes, "0123456789", 10) == 0,
             "liar %d: content", kind);
      packbuf_lease_release(&item.lease);
      if (kind == 0 || kind == 8 || kind == 13 || kind == 1) { /* each connection lies once */
        expect(!packbuf_i_peer_take(tcp, soon(), &peer, NULL), "take");
        packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the test");
        packbuf_i_peer_leave(peer);
      }
    }
    (void)shutdown(l.listener, SHUT_RDWR);
    packbuf_i_tcp_close(tcp);
    (void)pthread_join(thread, NULL);
    (void)close(l.listener);
    while (store->spare) {
      packbuf_i_leased *one = store->spare;
      store->spare = one->after;
      free(one);
    }
    free(store);
    expect(!packbuf_pool_close(pool, NULL), "a slice is left by liar %d", kind);
  }
  free(bytes);
  verdict("servers that say what they should not");
}

/* A server that answers the list of one connection in the greeting of the next; one that answers a put before its bytes
 * have come; one that reads no more than the greeting. */
typedef struct late_liar {
  int listener, early; /* early: 1: the put; 2: nothing */
} late_liar;

static void late_greet(int fd, int early) {
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_welcome welcome;
  memset(&welcome, 0, sizeof welcome);
  welcome.version = 1;
  welcome.most_items = welcome.most_requests = 16;
  welcome.eager_item = welcome.eager_all = early == 2 ? PACKBUF_I_EAGER_ALL : 0;
  (void)liar_hear(fd);
  packbuf_i_welcome_write(&body, &welcome);
  liar_say(fd, frame, &body, PACKBUF_I_WELCOME, 0, 0, 0);
}

static void late_listed(int fd, uint64_t request, const char *key) {
  uint8_t frame[512];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_listing listing;
  packbuf_listed listed;
  memset(&listing, 0, sizeof listing);
  memset(&listed, 0, sizeof listed);
  strcpy(listed.key, key);
  packbuf_i_listing_write(&body, &listing);
  packbuf_i_listed_write(&body, &listed);
  liar_say(fd, frame, &body, PACKBUF_I_LISTED, 1, request, 0);
}

static void *late_lie(void *context) {
  late_liar *l = (late_liar *)context;
  static uint8_t drain[MIB];
  struct timeval quiet = {0, 300000};
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  uint64_t request;
  int fd = accept(l->listener, NULL, NULL), next;
  late_greet(fd, l->early);
  if (l->early == 2) {
    packbuf_i_sleep_until(packbuf_deadline_in(400));
    (void)close(fd);
    return NULL;
  }
  request = liar_hear(fd);
  if (l->early) {
    packbuf_i_wire_give16(&body, 0);
    liar_say(fd, frame, &body, PACKBUF_I_GRANT, 1, request, 0);
    packbuf_i_sleep_until(packbuf_deadline_in(50));
    liar_result(fd, request, 0, PACKBUF_FULL, 0, 0);
    packbuf_i_sleep_until(packbuf_deadline_in(50));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet);
    while (recv(fd, drain, sizeof drain, 0) > 0) continue; /* what was on its way */
    liar_result(fd, request, 1, PACKBUF_FULL, 0, 0);
    quiet.tv_sec = 5;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet);
  } else {
    next = accept(l->listener, NULL, NULL);
    late_greet(next, 0);
    late_listed(next, request, "late");
    request = liar_hear(next);
    liar_result(next, request, 0, PACKBUF_NOT_FOUND, 0, 0);
    (void)liar_hear(next);
    (void)close(next);
    next = accept(l->listener, NULL, NULL); /* a key that a terminal would obey */
    late_greet(next, 0);
    late_listed(next, liar_hear(next), "red\xC2\x9B" "31m");
    (void)liar_hear(next);
    (void)close(next);
  }
  (void)liar_hear(fd);
  (void)close(fd);
  return NULL;
}

static packbuf_i_tcp *late_start(late_liar *l, pthread_t *thread, int early) {
  packbuf_i_address address;
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_i_tcp *tcp = NULL;
  char uri[64];
  memset(&address, 0, sizeof address);
  address.as.four.sin_family = AF_INET;
  address.as.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.size = sizeof address.as.four;
  l->early = early;
  expect(!packbuf_i_address_listen(&address, &l->listener, NULL), "listen");
  (void)fcntl(l->listener, F_SETFL, 0);
  snprintf(uri, sizeof uri, "tcp://127.0.0.1:%d", ntohs(address.as.four.sin_port));
  expect(pthread_create(thread, NULL, late_lie, l) == 0, "thread");
  options.pool_size = MIB;
  options.connections = 1;
  expect(!packbuf_i_tcp_open((void **)&tcp, uri, &options, NULL), "open");
  return tcp;
}

static void late_end(late_liar *l, pthread_t thread, packbuf_i_tcp *tcp) {
  (void)shutdown(l->listener, SHUT_RDWR);
  packbuf_i_tcp_close(tcp);
  (void)pthread_join(thread, NULL);
  (void)close(l->listener);
}

static int late_never(const packbuf_call *call, uint64_t index) { return (void)call, (void)index, 0; }

static void late_done(packbuf_call *call, uint64_t index) {
  const packbuf_i_peer *peer = &((packbuf_i_tcp *)call->context)->peers[0];
  if (index == 0 && call->operation == PACKBUF_PUT)
    expect(peer->broken || peer->piece == peer->piece_count, "its bytes are still on their way out");
}

static void test_late_answers(void) {
  late_liar l;
  pthread_t thread;
  packbuf_i_tcp *tcp = late_start(&l, &thread, 0);
  packbuf_listed *listed = (packbuf_listed *)calloc(4, sizeof *listed), clean;
  packbuf_item items[2];
  packbuf_call call;
  uint64_t cursor = 0, count = 0;
  packbuf_status status;
  uint8_t *bytes = (uint8_t *)calloc(1, 32 * MIB);
  begin("late answers");
  memset(&clean, 0, sizeof clean);
  expect((status = packbuf_i_tcp_list(tcp, NULL, &cursor, listed, 4, &count, packbuf_deadline_in(100), NULL)) ==
             PACKBUF_TIMEOUT,
         "a list that is not answered: %s", packbuf_status_name(status));
  items[0] = item_of("k");
  memset(&call, 0, sizeof call);
  call.operation = PACKBUF_STAT;
  call.items = items;
  call.count = 1;
  call.deadline = packbuf_deadline_in(5000);
  call.cancelled = late_never;
  call.done = late_done;
  call.context = tcp;
  packbuf_i_tcp_run(tcp, &call);
  expect(items[0].status == PACKBUF_PROTOCOL, "its answer comes in another greeting: %s",
         packbuf_status_name(items[0].status));
  expect(memcmp(&listed[0], &clean, sizeof clean) == 0, "which writes to memory that is the caller's again");
  status = packbuf_i_tcp_list(tcp, NULL, &cursor, listed, 4, &count, packbuf_deadline_in(2000), NULL);
  expect(status == PACKBUF_PROTOCOL && count == 0, "a key with control characters: %s", packbuf_status_name(status));
  late_end(&l, thread, tcp);
  tcp = late_start(&l, &thread, 1);
  for (int i = 0; i < 2; i++) {
    items[i] = item_of(i ? "small" : "large");
    items[i].from = bytes;
    items[i].size = i ? 10 : 32 * MIB;
  }
  call.operation = PACKBUF_PUT;
  call.count = 2;
  call.deadline = packbuf_deadline_in(10000);
  call.context = tcp;
  packbuf_i_tcp_run(tcp, &call);
  expect(items[0].status == PACKBUF_FULL && items[1].status == PACKBUF_FULL, "answered early: %s, %s",
         packbuf_status_name(items[0].status), packbuf_status_name(items[1].status));
  late_end(&l, thread, tcp);
  tcp = late_start(&l, &thread, 2);
  { /* of what follows a put at once, not all could be sent: it has not happened */
    const int small = 65536;
    (void)setsockopt(tcp->peers[0].fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    items[0].size = 3 * MIB;
    call.count = 1;
    call.deadline = packbuf_deadline_in(100);
    call.context = tcp;
    packbuf_i_tcp_run(tcp, &call);
    expect(items[0].status == PACKBUF_TIMEOUT, "half sent: %s", packbuf_status_name(items[0].status));
  }
  late_end(&l, thread, tcp);
  free(listed);
  free(bytes);
  verdict("answers of what broke off write nowhere, and items end when nothing of theirs is on its way out");
}

/* ---- clients that die ---- */

/* A client in a process of its own that puts until it is killed. */
static void child_puts(const char *uri) {
  packbuf_store *store = NULL;
  uint8_t *bytes = (uint8_t *)calloc(1, 6 * MIB);
  if (client_open_at(uri, NULL, &store, NULL)) _exit(1);
  for (uint64_t i = 0;; i++) {
    fill(bytes, 6 * MIB, i);
    (void)put_bytes(store, "killed", bytes, 6 * MIB, soon());
  }
}

static void test_killed(void) {
  packbuf_store *a;
  packbuf_store_info info;
  packbuf_counters counters;
  uint8_t *bytes = (uint8_t *)calloc(1, 6 * MIB);
  uint64_t used;
  int torn = 0, put = 0;
  begin("killed");
  server_start(64 * MIB, NULL);
  a = client_open();
  fill(bytes, 1000, 1);
  expect(!put_bytes(a, "killed", bytes, 1000, soon()), "put");
  expect(!packbuf_store_describe(served, &info, soon(), NULL), "describe");
  { /* one that dies in the middle for certain: it has half of its bytes out */
    packbuf_i_peer *peer = NULL;
    packbuf_i_tcp *tcp = (packbuf_i_tcp *)a->state;
    packbuf_item item = item_of("half");
    packbuf_call call;
    size_t room;
    memset(&call, 0, sizeof call);
    call.operation = PACKBUF_PUT;
    call.items = &item;
    call.count = 1;
    call.deadline = soon();
    item.from = bytes;
    item.size = 6 * MIB;
    expect(!packbuf_i_peer_take(tcp, soon(), &peer, NULL), "a connection");
    peer->call = &call;
    (void)packbuf_i_peer_choose(peer, 0, &room);
    packbuf_i_peer_ask(peer, room);
    peer->granted_from = PACKBUF_I_TRIP; /* so that the pump sends none of it */
    while (peer->granted_to == 0 && !peer->broken) (void)packbuf_i_peer_pump(peer, packbuf_deadline_in(100));
    peer->granted_from = 0;
    packbuf_i_peer_next(peer);
    expect(send(peer->fd, peer->pieces[0].iov_base, peer->pieces[0].iov_len, MSG_NOSIGNAL) ==
               (ssize_t)peer->pieces[0].iov_len,
           "a DATA frame begins");
    expect(send(peer->fd, peer->pieces[1].iov_base, MIB, MSG_NOSIGNAL) > 0, "and breaks off");
    expect(!packbuf_store_describe(served, &info, soon(), NULL) && info.used >= 6 * MIB, "room is reserved");
    packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the test");
    packbuf_i_peer_leave(peer);
    for (int i = 0; i < 100; i++) {
      if (!packbuf_store_describe(served, &info, soon(), NULL) && info.used < 6 * MIB) break;
      packbuf_i_sleep_until(packbuf_deadline_in(10));
    }
    expect(info.used < 6 * MIB && stat_of(a, "half", NULL) == PACKBUF_NOT_FOUND,
           "room is back, and nothing to be seen");
  }
  used = info.used;
  for (int round = 0; round < 12; round++) {
    packbuf_stat looked;
    const uint64_t before = stat_of(a, "killed", &looked) ? 0 : looked.generation;
    const pid_t child = fork();
    packbuf_item item = item_of("killed");
    if (child == 0) child_puts(packbuf_server_uri(server));
    for (int i = 0; i < 400; i++) { /* until it has put once, and then some */
      packbuf_stat stat;
      if (stat_of(a, "killed", &stat) || stat.generation != before) break;
      packbuf_i_sleep_until(packbuf_deadline_in(5));
    }
    packbuf_i_sleep_until(packbuf_now() + (uint64_t)round * 1700000u);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    if (packbuf_batch_get(a, &item, 1, soon(), NULL)) torn++;
    else if (item.lease.size == 6 * MIB) {
      uint64_t which;
      put++;
      for (which = 0; which < 2000 && !is_filled(item.lease.data, 64, which); which++) continue;
      if (!is_filled(item.lease.data, 6 * MIB, which)) torn++;
    }
    packbuf_lease_release(&item.lease);
  }
  expect(torn == 0, "%d of 12 were torn or lost", torn);
  tap_note("%d of 12 killed clients had put an object of 6 MiB", put);
  expect(!remove_key(a, "killed"), "remove");
  for (int i = 0; i < 200; i++) {
    memset(&counters, 0, sizeof counters);
    if (!packbuf_store_describe(served, &info, soon(), NULL) && !packbuf_store_counters(served, &counters, NULL) &&
        info.used < used && !counters.slices)
      break;
    packbuf_i_sleep_until(packbuf_deadline_in(10));
  }
  expect(info.used <= used && counters.slices == 0, "%d bytes and %d slices are left", (int)info.used,
         (int)counters.slices);
  client_close(a);
  server_stop();
  free(bytes);
  verdict("clients killed in the middle of a put leave nothing");
}

/* A client that takes leases and does not read what it asked for. */
static void test_slow(void) {
  packbuf_server_options options;
  uint8_t *bytes = (uint8_t *)calloc(1, 12 * MIB);
  packbuf_store *a, *slow;
  packbuf_i_peer *peer = NULL;
  packbuf_item item = item_of("k");
  packbuf_call call;
  size_t room;
  uint64_t from;
  packbuf_status status;
  begin("slow");
  memset(&options, 0, sizeof options);
  options.lease_ms = 300;
  server_start(16 * MIB, &options);
  a = client_open();
  slow = client_open();
  expect(!put_bytes(a, "k", bytes, 12 * MIB, soon()), "put");
  memset(&call, 0, sizeof call);
  call.operation = PACKBUF_GET;
  call.items = &item;
  call.count = 1;
  call.deadline = soon();
  expect(!packbuf_i_peer_take((packbuf_i_tcp *)slow->state, soon(), &peer, NULL), "a connection");
  peer->call = &call;
  (void)packbuf_i_peer_choose(peer, 0, &room);
  packbuf_i_peer_ask(peer, room);
  packbuf_i_peer_write(peer);
  packbuf_i_sleep_until(packbuf_deadline_in(500));
  expect(!remove_key(a, "k") || 1, "remove");
  from = packbuf_now();
  status = put_bytes(a, "new", bytes, 12 * MIB, packbuf_deadline_in(5000));
  expect(!status && packbuf_now() - from < 3000000000u, "its room is taken back: %s", packbuf_status_name(status));
  packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the test");
  packbuf_i_peer_leave(peer);
  client_close(a);
  client_close(slow);
  server_stop();
  free(bytes);
  verdict("a reader that makes no progress is cut off when its room is wanted");
}

enum { TORN = 24 << 20 }; /* more than what both sockets usually keep */

/* A child after fork has all connections, of both sides, and keeps them: they end all the same when this process closes
 * them, and the server does not hear of them again. */
static void test_forked(void) {
  packbuf_store *a, *b;
  const uint64_t end = soon();
  pid_t child;
  begin("forked");
  server_start(4 * MIB, NULL);
  a = client_open();
  b = client_open();
  expect(!put_bytes(a, "k", "12345", 5, soon()) && !stat_of(b, "k", NULL), "put");
  child = fork();
  if (child == 0)
    for (;;) (void)pause();
  client_close(a);
  while (PACKBUF_I_LOAD(&server->connections) > 1 && packbuf_now() < end) packbuf_i_sleep_until(packbuf_deadline_in(2));
  expect(PACKBUF_I_LOAD(&server->connections) == 1, "the server saw the end of one");
  for (int i = 0; i < 200; i++) {
    a = client_open();
    expect(!put_bytes(a, "k", "12345", 5, soon()) && !stat_of(b, "k", NULL), "put %d", i);
    client_close(a);
  }
  (void)kill(child, SIGKILL);
  (void)waitpid(child, NULL, 0);
  client_close(b);
  server_stop();
  verdict("connections that a forked child has too");
}

/* A reader in a process of its own: right bytes (0), an error (1), or mixed ones (2). */
static void child_reads(const char *uri, uint8_t *into) {
  packbuf_store *store = NULL;
  packbuf_item item = item_of("k");
  packbuf_status status;
  if (client_open_at(uri, NULL, &store, NULL)) _exit(3);
  item.into = into;
  item.capacity = TORN;
  status = packbuf_batch_get(store, &item, 1, soon(), NULL);
  _exit(status ? 1 : is_filled(into, TORN, 7) ? 0 : 2);
}

/* Starts a reader and stops it when some of the payload has arrived and not all of it: it reads into memory that is
 * watched. 0: it never came to that. */
static pid_t stopped_reader(uint8_t *into) {
  for (int i = 0; i < 200; i++) {
    volatile uint8_t *bytes = into;
    const uint64_t end = soon();
    int status;
    pid_t child;
    memset(into, 0, TORN);
    child = fork();
    if (child == 0) child_reads(packbuf_server_uri(server), into);
    while (!bytes[MIB / 8] && !bytes[MIB / 8 + 1] && packbuf_now() < end) continue;
    (void)kill(child, SIGSTOP);
    if (waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status)) {
      int empty = 1; /* its last page is as it was */
      for (size_t k = TORN - 4096; k < TORN; k++) empty = empty && !bytes[k];
      if (empty) return child;
      (void)kill(child, SIGKILL);
      (void)waitpid(child, NULL, 0);
    }
  }
  return 0;
}

/* A reader is stopped in the middle of an object's bytes while its key is removed and its memory wanted. It is cut off
 * when it makes no progress for lease_ms, and then has an error; before that, the writer has no room, and the reader
 * right bytes. Never mixed ones. (Where sockets keep all of it, the memory is free at once, and the bytes are right.)
 */
static void test_torn(uint32_t lease_ms) {
  packbuf_server_options options;
  uint8_t *bytes = (uint8_t *)malloc(TORN);
  uint8_t *into = (uint8_t *)mmap(NULL, TORN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  packbuf_item item = item_of("k");
  packbuf_store *a;
  packbuf_status removed, put;
  const int cut = lease_ms < 1000;
  int status = 0;
  pid_t child;
  begin("torn");
  memset(&options, 0, sizeof options);
  options.lease_ms = lease_ms;
  server_start(32 * MIB, &options);
  a = client_open();
  fill(bytes, TORN, 7);
  expect(!put_bytes(a, "k", bytes, TORN, soon()), "put");
  child = stopped_reader(into);
  expect(child > 0, "no reader was stopped in the middle");
  removed = packbuf_batch_remove(a, &item, 1, packbuf_deadline_in(100), NULL);
  expect(removed == PACKBUF_OK || removed == PACKBUF_LEASED, "remove: %s", packbuf_status_name(removed));
  expect(stat_of(a, "k", NULL) == PACKBUF_NOT_FOUND, "it is gone for others");
  fill(bytes, TORN, 8);
  put = put_bytes(a, "new", bytes, TORN, packbuf_deadline_in(cut ? 20000 : 300));
  expect(put == PACKBUF_OK || (!cut && (put == PACKBUF_FULL || put == PACKBUF_TIMEOUT)),
         "a put that wants its memory: %s", packbuf_status_name(put));
  if (child > 0) {
    (void)kill(child, SIGCONT);
    (void)waitpid(child, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) <= (cut ? 1 : 0), "the reader went on: %d", WEXITSTATUS(status));
  }
  if (put) expect(!put_bytes(a, "new", bytes, TORN, soon()), "and then there is room");
  client_close(a);
  server_stop();
  free(bytes);
  (void)munmap(into, TORN);
  verdict(cut ? "a reader stopped in the middle, and cut off: an error, no mixed bytes"
              : "a reader stopped in the middle, and not cut off: right bytes");
}

/* ---- threads ---- */

typedef struct worker {
  packbuf_store *store;
  unsigned number, wrong;
} worker;

static void *work_on(void *context) {
  worker *w = (worker *)context;
  uint8_t *bytes = (uint8_t *)malloc(200000);
  for (unsigned i = 0; i < 150; i++) {
    char key[32];
    const uint64_t which = (uint64_t)w->number << 32 | i, size = 16 + (which * 2654435761u) % 150000;
    packbuf_item item;
    snprintf(key, sizeof key, "t%u", (w->number + i) % 16);
    fill(bytes, size, which);
    memcpy(bytes, &which, 8);
    memcpy(bytes + 8, &size, 8);
    if (put_bytes(w->store, key, bytes, size, soon())) w->wrong++;
    item = item_of(key);
    if (packbuf_batch_get(w->store, &item, 1, soon(), NULL) == PACKBUF_OK) {
      uint64_t was, length;
      memcpy(&was, item.lease.data, 8);
      memcpy(&length, (const uint8_t *)item.lease.data + 8, 8);
      fill(bytes, length < 200000 ? length : 0, was);
      if (length != item.lease.size || memcmp(bytes + 16, (const uint8_t *)item.lease.data + 16, length - 16) != 0)
        w->wrong++;
    } else if (item.status != PACKBUF_NOT_FOUND) w->wrong++;
    packbuf_lease_release(&item.lease);
    item = item_of(key);
    if (i % 7 == 0 && packbuf_batch_remove(w->store, &item, 1, soon(), NULL) != PACKBUF_OK &&
        item.status != PACKBUF_NOT_FOUND)
      w->wrong++;
  }
  free(bytes);
  return NULL;
}

static void test_threads(void) {
  enum { THREADS = 6 };
  pthread_t threads[THREADS];
  worker workers[THREADS];
  packbuf_store *stores[2];
  packbuf_counters counters;
  begin("threads");
  server_start(32 * MIB, NULL);
  stores[0] = client_open();
  stores[1] = client_open();
  for (unsigned i = 0; i < THREADS; i++) {
    workers[i].store = stores[i % 2];
    workers[i].number = i;
    workers[i].wrong = 0;
    expect(pthread_create(&threads[i], NULL, work_on, &workers[i]) == 0, "thread");
  }
  for (unsigned i = 0; i < THREADS; i++) {
    (void)pthread_join(threads[i], NULL);
    expect(workers[i].wrong == 0, "thread %d: %d wrong", (int)i, (int)workers[i].wrong);
  }
  memset(&counters, 0, sizeof counters);
  expect(!packbuf_server_counters(server, &counters, NULL) && counters.puts == THREADS * 150, "%d puts",
         (int)counters.puts);
  client_close(stores[0]);
  client_close(stores[1]);
  server_stop();
  verdict("six threads over two handles");
}

int main(void) {
  for (unsigned i = 0; i < MANY; i++) snprintf(keys[i], sizeof keys[i], "batch/%u", i);
  test_odd_arguments();
  test_no_descriptors();
  test_lurkers();
  test_floods();
  test_sizes();
  test_generations();
  test_batches();
  test_ranges();
  test_room();
  test_in_vain();
  test_waiting();
  test_leases();
  test_quotas();
  test_secrets();
  test_metrics();
  test_deadlines();
  test_nonsense_forked();
  test_liars();
  test_late_answers();
  test_killed();
  test_slow();
  test_forked();
  test_torn(300);
  test_torn(30000);
  test_threads();
  return tap_plan_done();
}
