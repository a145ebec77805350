/* What the tests of the shm store's driver share: a handle used directly, one item at a time, content that can be
 * checked, and the audit of everything that lies in a store. Test-only. Include first: it brings the implementation. */
#ifndef SHM_HELPER_H
#define SHM_HELPER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "tap.h"
#include "items.h"

#define DRIVER packbuf_i_shm_driver

typedef struct handle {
  void *state;
  packbuf_error error;
  uint64_t done, cancel; /* items that were told of; index + 1 of the item to cancel */
  int asks;              /* not before it was asked that often */
} handle;

static packbuf_i_holder shm_holder; /* that slices name which the driver reserved */
static char shm_name[64];           /* of the test's store: "NAME" */

static inline void shm_away(void) {
  char path[128];
  snprintf(path, sizeof path, "/dev/shm/packbuf.%s", shm_name);
  (void)unlink(path);
}

/* A new name; the file of the one before goes. */
static inline void shm_fresh(void) {
  static int number;
  if (shm_name[0]) shm_away();
  snprintf(shm_name, sizeof shm_name, "test-%ld-%d", (long)getpid(), number++);
}

static inline packbuf_status handle_open_with(handle *h, const char *options, packbuf_store_options wanted) {
  char uri[256];
  snprintf(uri, sizeof uri, "shm:%s%s", shm_name, options);
  memset(h, 0, sizeof *h);
  return DRIVER.open(&h->state, uri, &wanted, &h->error);
}

static inline packbuf_status handle_open(handle *h, const char *options) {
  packbuf_store_options wanted;
  memset(&wanted, 0, sizeof wanted);
  wanted.name = "test";
  return handle_open_with(h, options, wanted);
}

static inline void handle_close(handle *h) {
  if (h->state) DRIVER.close(h->state);
  h->state = NULL;
}

static inline packbuf_i_shm *shm_of(handle *h) { return (packbuf_i_shm *)h->state; }

static inline int handle_cancelled(const packbuf_call *call, uint64_t index) {
  handle *h = (handle *)call->context;
  return h->cancel == index + 1 && h->asks-- <= 0;
}
static inline void handle_done(packbuf_call *call, uint64_t index) {
  (void)index;
  ((handle *)call->context)->done++;
}

static inline void handle_run(handle *h, packbuf_operation operation, packbuf_item *items, uint64_t count,
                              uint64_t deadline) {
  packbuf_call call;
  memset(&call, 0, sizeof call);
  call.operation = operation;
  call.items = items;
  call.count = count;
  call.deadline = deadline;
  call.cancelled = handle_cancelled;
  call.done = handle_done;
  call.context = h;
  call.holder = &shm_holder;
  h->done = 0;
  for (uint64_t i = 0; i < count; i++) items[i].status = PACKBUF_STATUS_MAX_;
  DRIVER.run(h->state, &call);
}

/* Bytes that a seed determines: each of eight names the seed. */
static inline void content_fill(void *to, uint64_t size, uint64_t seed) {
  uint8_t *bytes = (uint8_t *)to;
  uint64_t at = 0;
  for (; at + 8 <= size; at += 8) memcpy(bytes + at, &seed, 8);
  for (; at < size; at++) bytes[at] = (uint8_t)seed;
}
static inline int content_is(const void *from, uint64_t size, uint64_t seed) {
  const uint8_t *bytes = (const uint8_t *)from;
  uint64_t at = 0;
  for (; at + 8 <= size; at += 8)
    if (memcmp(bytes + at, &seed, 8) != 0) return 0;
  for (; at < size; at++)
    if (bytes[at] != (uint8_t)seed) return 0;
  return 1;
}
static inline uint64_t content_seed(const void *from) {
  uint64_t seed;
  memcpy(&seed, from, 8);
  return seed;
}

static inline packbuf_item put_with(handle *h, const char *key, uint64_t size, uint64_t seed, uint32_t flags,
                                    uint32_t ttl_ms, uint64_t deadline) {
  packbuf_item item = item_of(key);
  uint8_t *bytes = (uint8_t *)malloc(size ? size : 1);
  if (!bytes) abort();
  content_fill(bytes, size, seed);
  item.from = bytes;
  item.size = size;
  item.flags = flags;
  item.ttl_ms = ttl_ms;
  handle_run(h, PACKBUF_PUT, &item, 1, deadline);
  free(bytes);
  return item;
}
static inline packbuf_item put(handle *h, const char *key, uint64_t size, uint64_t seed) {
  return put_with(h, key, size, seed, 0, 0, PACKBUF_NO_WAIT);
}
static inline packbuf_item one(handle *h, packbuf_operation operation, const char *key, uint64_t generation,
                               uint64_t deadline) {
  packbuf_item item = item_of(key);
  item.generation = generation;
  handle_run(h, operation, &item, 1, deadline);
  return item;
}
static inline packbuf_item get(handle *h, const char *key, uint64_t generation) {
  return one(h, PACKBUF_GET, key, generation, PACKBUF_NO_WAIT);
}
static inline packbuf_status removed(handle *h, const char *key, uint64_t deadline) {
  return one(h, PACKBUF_REMOVE, key, 0, deadline).status;
}

/* What lies in a store. */
typedef struct audit {
  uint64_t live, other, cells, pins, units, extents;
} audit;

/* Of a store that nobody works in. */
static inline audit audit_of(handle *h) {
  packbuf_i_shm *shm = shm_of(h);
  audit a;
  memset(&a, 0, sizeof a);
  for (uint32_t i = 0; i < shm->facts.slots; i++) {
    const unsigned phase = packbuf_i_shm_phase(PACKBUF_I_LOAD(&shm->words[i]));
    a.live += phase == PACKBUF_I_SHM_LIVE;
    a.other += phase != PACKBUF_I_SHM_LIVE && phase != PACKBUF_I_SHM_FREE;
    if (phase != PACKBUF_I_SHM_FREE) a.extents += packbuf_i_shm_extent_units(PACKBUF_I_LOAD(&shm->slots[i].extent));
    a.pins += packbuf_i_shm_pins(shm, i);
  }
  for (uint64_t i = 0; i < (uint64_t)shm->facts.slots * 4; i++)
    a.cells += (uint32_t)PACKBUF_I_LOAD(&shm->cells[i]) != 0;
  for (uint64_t i = 0; i < shm->facts.units; i++)
    a.units += packbuf_i_shm_unit_of(shm, i) != PACKBUF_I_SHM_NOBODYS;
  return a;
}

/* 1: `live` objects with a cell each and all units in their extents, no pins, nothing else. */
static inline int audit_good(handle *h, uint64_t live) {
  const audit a = audit_of(h);
  const int good = a.live == live && a.cells == live && a.other == 0 && a.pins == 0 && a.units == a.extents;
  if (!good)
    tap_note("live %lu (expected %lu), cells %lu, other slots %lu, pins %lu, units %lu in extents of %lu",
             (unsigned long)a.live, (unsigned long)live, (unsigned long)a.cells, (unsigned long)a.other,
             (unsigned long)a.pins, (unsigned long)a.units, (unsigned long)a.extents);
  return good;
}

static inline int collected(handle *h, uint64_t live) {
  return DRIVER.collect(h->state, PACKBUF_NO_WAIT, NULL, &h->error) == PACKBUF_OK && audit_good(h, live);
}

#endif
