/* Cases C44 to C58 of store_contract.c: room, waiting, times to live, eviction, lists; removal and leases. Test-only.
 */

/* ---- C44 to C52 ---- */

/* Fills the store with objects "NAME/0", "NAME/1", ... of 1 MiB, seeds from 0 on, until it is full; how many. */
static unsigned fill_store(const char *name, uint32_t flags) {
  packbuf_item item;
  char key[64];
  unsigned count = 0;
  for (; count < 200; count++) {
    packbuf_status status;
    snprintf(key, sizeof key, "%s/%u", name, count);
    item = item_of(key);
    fill_bytes(w.source, MIB, count);
    item.from = w.source;
    item.size = MIB;
    item.flags = flags;
    status = run(w.a, PACKBUF_PUT, &item, 1, at_once());
    if (!status) continue;
    expect_status(status, PACKBUF_FULL);
    break;
  }
  return count;
}

static packbuf_status put_mib(packbuf_store *store, const char *key, uint64_t deadline) {
  packbuf_item item = item_of(key);
  item.from = w.source;
  item.size = MIB;
  return run(store, PACKBUF_PUT, &item, 1, deadline);
}

static void c44_full(void) {
  const unsigned count = fill_store("c44", 0);
  char key[64];
  expect(count >= 40 && count <= 64);
  for (unsigned i = 0; i < count; i++) {
    snprintf(key, sizeof key, "c44/%u", i);
    expect_get(w.b, key, 0, MIB, i);
  }
  expect_status(put_mib(w.b, "c44/more", at_once()), PACKBUF_FULL);
  expect_absent(w.b, "c44/more");
  expect_status(remove_by(w.a, "c44/1", 0, in_time()), PACKBUF_OK);
  expect_status(put_mib(w.a, "c44/more", in_time()), PACKBUF_OK);
}

/* A busy machine wakes late: one of three is in time; none may be early. */
static void c45_full_to_the_deadline(void) {
  int soon = 0;
  (void)fill_store("c45", 0);
  for (unsigned i = 0; i < 3 && !soon; i++) {
    const uint64_t start = packbuf_now();
    expect_status(put_mib(w.a, "c45/more", packbuf_deadline_in(200)), PACKBUF_FULL);
    expect(packbuf_now() - start >= 199000000u);
    soon = milliseconds_since(start) <= 400;
  }
  expect(soon);
}

static void c46_room_later(void) {
  order o = order_of(DO_REMOVE, "c46/2");
  uint64_t start, took;
  (void)fill_store("c46", 0);
  o.after_ms = 50;
  start = packbuf_now();
  other_begin(o);
  expect_status(put_mib(w.a, "c46/more", in_time()), PACKBUF_OK);
  took = milliseconds_since(start);
  expect_status(other_answer().status, PACKBUF_OK);
  expect(took >= 45 && took < 2000);
  if (took >= 150) tap_note("%s: room was found %u ms after it was there", w.name, (unsigned)took - 50);
}

static void c47_larger_than_the_store(void) {
  const uint64_t size = STORE_SIZE + 4096, start = packbuf_now();
  void *large = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  packbuf_slice slice;
  w.registers = 1;
  expect_status(packbuf_register(w.a, large, size, NULL), PACKBUF_OK);
  expect_status(put_memory(w.a, "c47", large, size), PACKBUF_CAPACITY);
  {
    packbuf_item item = item_of("c47");
    item.from = large;
    item.size = size;
    expect_status(run(w.a, PACKBUF_PUT, &item, 1, at_once()), PACKBUF_CAPACITY);
  }
  expect_status(reserve_one(w.a, size, in_time(), &slice), PACKBUF_CAPACITY);
  expect(milliseconds_since(start) < 5000);
  expect_absent(w.a, "c47");
  expect_status(packbuf_unregister(w.a, large, size, NULL), PACKBUF_OK);
  (void)munmap(large, (size_t)size);
}

/* Of the evictable objects that are there, the one that was put first is leased and the others read after it, the
 * second last of all: without the lease the first, without a note of that reading the second would be the next to go.
 */
static void c48_eviction(void) {
  packbuf_lease lease;
  const uint64_t evicted = counters_of(w.a).evicted + counters_of(w.b).evicted;
  const int in_place = (w.can & PACKBUF_CAN_IN_PLACE) != 0;
  unsigned first = 0, gone = 0;
  char key[64], second[64];
  for (unsigned i = 0; i < 5; i++) {
    snprintf(key, sizeof key, "c48/plain/%u", i);
    (void)put(w.a, key, MIB, 480 + i);
  }
  expect_number(fill_store("c48", PACKBUF_PUT_EVICTABLE), 200);
  if (in_place) expect(counters_of(w.a).evicted + counters_of(w.b).evicted > evicted); /* elsewhere the server counts */
  do snprintf(key, sizeof key, "c48/%u", first++);
  while (stat_of(w.b, key, 0, NULL) && first < 199);
  expect_status(lease_by(w.b, key, 0, &lease), PACKBUF_OK);
  sleep_ms(30);
  for (unsigned i = first + 1; i < 200; i++) {
    snprintf(key, sizeof key, "c48/%u", i);
    expect_get(w.b, key, 0, MIB, i);
  }
  sleep_ms(30);
  snprintf(second, sizeof second, "c48/%u", first);
  expect_get(w.b, second, 0, MIB, first);
  for (unsigned i = 0; i < 10; i++) {
    snprintf(key, sizeof key, "c48/last/%u", i);
    (void)put(w.a, key, MIB, 500 + i);
  }
  for (unsigned i = 0; i < 5; i++) {
    snprintf(key, sizeof key, "c48/plain/%u", i);
    expect_get(w.b, key, 0, MIB, 480 + i);
  }
  snprintf(key, sizeof key, "c48/%u", first - 1);
  expect(same_bytes(lease.data, lease.size, first - 1));
  if (in_place) expect_get(w.b, key, 0, MIB, first - 1);
  expect_get(w.b, second, 0, MIB, first);
  for (unsigned i = 0; i < 200; i++) {
    snprintf(key, sizeof key, "c48/%u", i);
    gone += stat_of(w.b, key, 0, NULL) == PACKBUF_NOT_FOUND;
  }
  expect(gone >= 145 && gone < 175);
  packbuf_lease_release(&lease);
}

static packbuf_status put_for(const char *key, uint32_t ttl_ms, uint64_t size, uint64_t seed) {
  packbuf_item item = item_of(key);
  fill_bytes(w.source, size, seed);
  item.from = w.source;
  item.size = size;
  item.ttl_ms = ttl_ms;
  return run(w.a, PACKBUF_PUT, &item, 1, in_time());
}

static void c49_time_to_live(void) {
  packbuf_stat first, second;
  packbuf_lease lease;
  const uint64_t expired = counters_of(w.a).expired, start = packbuf_now();
  expect_status(put_for("c49/short", 50, 70000, 49), PACKBUF_OK);
  if (stat_of(w.b, "c49/short", 0, &first) == PACKBUF_OK) expect(first.left_ms <= 50);
  else expect(milliseconds_since(start) >= 50);
  expect_status(put_for("c49/long", 1500, 70000, 50), PACKBUF_OK);
  expect_status(put_for("c49/leased", 1500, 70000, 51), PACKBUF_OK);
  expect_status(stat_of(w.b, "c49/long", 0, &first), PACKBUF_OK);
  expect_status(lease_by(w.b, "c49/leased", 0, &lease), PACKBUF_OK);
  expect_status(put_for("c49/unseen", 50, 70000, 52), PACKBUF_OK);
  sleep_ms(60);
  expect_absent(w.b, "c49/short");
  expect_status(stat_of(w.b, "c49/long", 0, &second), PACKBUF_OK);
  expect(first.left_ms <= 1500 && second.left_ms < first.left_ms && second.age_ms > first.age_ms);
  sleep_ms(1550);
  expect_absent(w.b, "c49/long");
  expect_status(remove_by(w.b, "c49/leased", 0, in_time()), PACKBUF_NOT_FOUND);
  expect_status(packbuf_store_collect(w.b, in_time(), NULL, NULL), PACKBUF_OK);
  expect(same_bytes(lease.data, lease.size, 51));
  if (w.can & PACKBUF_CAN_IN_PLACE) expect_used(73728);
  packbuf_lease_release(&lease);
  expect_used(0);
  if (w.can & PACKBUF_CAN_IN_PLACE) expect(counters_of(w.a).expired + counters_of(w.b).expired > expired);
  (void)put(w.a, "c49/ever", 10, 1);
  expect_status(stat_of(w.a, "c49/ever", 0, &first), PACKBUF_OK);
  expect_number(first.left_ms, UINT64_MAX);
}

static void c50_handle_quota(void) {
  packbuf_store_options options = contract_options();
  packbuf_store *c = NULL;
  packbuf_lease lease;
  options.quota = MIB;
  if (!expect_status(open_more(&options, &c), PACKBUF_OK)) return;
  expect_status(packbuf_register(c, w.source, 3 * ZONE, NULL), PACKBUF_OK);
  (void)put(c, "c50/0", MIB / 2, 50);
  (void)put(c, "c50/1", MIB / 2, 51);
  expect_status(put_by(c, "c50/2", 4096, 52, at_once(), NULL), PACKBUF_QUOTA);
  expect_absent(w.a, "c50/2");
  (void)put(w.a, "c50/3", 3 * MIB, 53);
  expect_status(remove_by(c, "c50/0", 0, in_time()), PACKBUF_OK);
  (void)put(c, "c50/2", MIB / 4, 54);
  expect_status(put_by(c, "c50/4", MIB / 2, 55, at_once(), NULL), PACKBUF_QUOTA);
  expect_get(w.b, "c50/2", 0, MIB / 4, 54);
  expect_status(remove_by(w.a, "c50/1", 0, in_time()), PACKBUF_OK); /* whoever removes it */
  (void)put(c, "c50/4", MIB / 2, 56);
  (void)put(c, "c50/5", 4096, 57);
  expect_status(lease_by(w.b, "c50/5", 0, &lease), PACKBUF_OK);
  (void)remove_by(w.b, "c50/5", 0, at_once()); /* it goes when the lease ends, after the handle that put it */
  expect_status(packbuf_unregister(c, w.source, 3 * ZONE, NULL), PACKBUF_OK);
  expect_status(packbuf_store_close(c, in_time(), NULL), PACKBUF_OK);
  packbuf_lease_release(&lease);
  expect_get(w.b, "c50/4", 0, MIB / 2, 56);
}

/* Lists by pages; how often each of `keys` "NAME/i" was listed, and in *all how many there were. */
static void list_pages(const char *prefix, uint64_t page, const char *name, unsigned keys, unsigned *seen,
                       unsigned *all) {
  packbuf_listed *listed = (packbuf_listed *)calloc(page, sizeof *listed);
  uint64_t cursor = 0, count = 0;
  const size_t size = strlen(name);
  unsigned pages = 0;
  memset(seen, 0, keys * sizeof *seen);
  *all = 0;
  do {
    if (!expect_status(packbuf_store_list(w.a, prefix, &cursor, listed, page, &count, in_time(), NULL), PACKBUF_OK))
      break;
    expect(count <= page);
    for (uint64_t i = 0; i < count; i++) {
      const char *key = listed[i].key;
      const unsigned long at =
          strncmp(key, name, size) == 0 && key[size] == '/' ? strtoul(key + size + 1, NULL, 10) : keys;
      ++*all;
      if (at >= keys) continue;
      seen[at]++;
      expect_number(listed[i].stat.length, 100 + at);
      expect(listed[i].stat.generation != 0);
    }
  } while (cursor && pages++ < 5000);
  expect_number(cursor, 0);
  free(listed);
}

static void c51_list(void) {
  enum { KEYS = 200 };
  unsigned seen[KEYS], all = 0, once;
  order o = order_of(DO_CHURN, "c51x");
  char key[64];
  for (unsigned i = 0; i < KEYS; i++) {
    snprintf(key, sizeof key, "c51/%u", i);
    (void)put(w.a, key, 100 + i, i);
  }
  (void)put(w.a, "c5", 10, 1);
  for (unsigned round = 0; round < 4; round++) {
    list_pages(round % 2 ? NULL : "c51/", round < 2 ? 1000 : 7, "c51", KEYS, seen, &all);
    once = 0;
    for (unsigned i = 0; i < KEYS; i++) once += seen[i] == 1;
    expect_number(once, KEYS);
    expect_number(all, (uint64_t)KEYS + (round % 2 ? 1 + w.objects : 0));
  }
  list_pages("c51/nothing", 7, "c51", KEYS, seen, &all);
  expect_number(all, 0);
  o.count = 6000;
  other_begin(o);
  for (unsigned round = 0; round < 5; round++) {
    list_pages(round % 2 ? "c51" : NULL, 7, "c51", KEYS, seen, &all);
    once = 0;
    for (unsigned i = 0; i < KEYS; i++) once += seen[i] == 1;
    expect_number(once, KEYS);
  }
  expect(other_answer().good);
}

static void c52_describe(void) {
  packbuf_store_info info = info_of(w.b);
  packbuf_counters counters;
  expect(strcmp(info.transport, w.transport) == 0 && info.capabilities == w.can && !info.stepped_down);
  expect(strchr(info.uri, '?') == NULL && info.uri[0]);
  (void)put(w.a, "c52/0", 100000, 52);
  (void)put(w.a, "c52/1", 0, 53);
  (void)put(w.a, "c52/0", 50000, 54);
  info = info_of(w.b);
  if (info.size != UINT64_MAX) expect(info.size >= STORE_SIZE / 10 * 9 && info.size <= STORE_SIZE / 8 * 9);
  if (info.objects != UINT64_MAX) expect_number(info.objects, w.objects + 2);
  if (info.most_objects != UINT64_MAX) expect(info.most_objects >= STORE_OBJECTS);
  if (!knows_used()) return;
  expect(used_more() >= 50000 && used_more() <= 53248 + 4096);
  if (!(w.can & PACKBUF_CAN_IN_PLACE)) return; /* the server counts */
  counters = counters_of(w.b);
  expect_number(counters.store_used, info.used);
  expect_number(counters.store_objects, info.objects);
}

/* ---- C53 to C58 ---- */

static void c53_remove_leased(void) {
  const int in_place = (w.can & PACKBUF_CAN_IN_PLACE) != 0;
  const answer a = (put(w.a, "c53", 200000, 53), other_leases_it("c53", 0, 200000, 53, 0));
  const uint64_t again = put(w.a, "c53/again", 200000, 54);
  uint64_t start;
  expect(!a.status && a.good);
  expect_status(remove_by(w.a, "c53", 0, at_once()), in_place ? PACKBUF_LEASED : PACKBUF_OK);
  expect_absent(w.a, "c53");
  expect_absent(w.b, "c53");
  expect(other_still_sees(200000, 53, 0));
  (void)other_leases_it("c53/again", again, 200000, 54, 1);
  start = packbuf_now();
  expect_status(remove_by(w.a, "c53/again", again, packbuf_deadline_in(100)), in_place ? PACKBUF_LEASED : PACKBUF_OK);
  if (in_place) expect(packbuf_now() - start >= 99000000u && milliseconds_since(start) < 2000);
  expect_absent(w.b, "c53/again");
  (void)put(w.a, "c53", 100, 55);
  expect(other_still_sees(200000, 53, 0) && other_still_sees(200000, 54, 1));
  expect_get(w.b, "c53", 0, 100, 55);
  expect_status(remove_by(w.b, "c53", 0, in_time()), PACKBUF_OK);
  if (in_place) expect_used(2 * 200704);
  other_releases(0);
  if (in_place) expect_used(200704);
  other_releases(1);
  expect_used(0);
}

static void c54_remove_waits(void) {
  order o = order_of(DO_RELEASE, "");
  const uint64_t generation = put(w.a, "c54", 200000, 54);
  uint64_t start;
  const answer a = other_leases_it("c54", 0, 200000, 54, 0);
  expect(!a.status && a.good);
  o.after_ms = 50;
  start = packbuf_now();
  other_begin(o);
  expect_status(remove_by(w.a, "c54", generation, PACKBUF_FOREVER), PACKBUF_OK);
  if (w.can & PACKBUF_CAN_IN_PLACE) expect(milliseconds_since(start) >= 45 && milliseconds_since(start) < 5000);
  (void)other_answer();
  expect_used(0);
}

/* Where the engine's own leases delay removals. */
static void c55_engine_lease(void) {
  packbuf_item item = item_of("c55");
  uint64_t left = 1;
  const uint64_t start = packbuf_now();
  (void)put(w.a, "c55", 1000, 55);
  expect_status(stat_of(w.a, "c55", 0, NULL), PACKBUF_OK);
  expect_status(run(w.a, PACKBUF_REMOVE, &item, 1, packbuf_deadline_in(150)), PACKBUF_LEASED);
  expect_status(packbuf_store_collect(w.a, in_time(), &left, NULL), PACKBUF_OK);
  expect_number(left, 1);
  while (left && milliseconds_since(start) < 30000) {
    sleep_ms(100);
    expect_status(packbuf_store_collect(w.a, in_time(), &left, NULL), PACKBUF_OK);
  }
  expect_number(left, 0);
  expect_absent(w.a, "c55");
}

static void c56_remove_all_generations(void) {
  packbuf_lease leases[3];
  for (unsigned i = 0; i < 3; i++) {
    const uint64_t generation = put(w.a, "c56", 100000, 560 + i);
    expect_status(lease_by(w.b, "c56", generation, &leases[i]), PACKBUF_OK);
  }
  expect_status(remove_by(w.a, "c56", 0, at_once()), w.can & PACKBUF_CAN_IN_PLACE ? PACKBUF_LEASED : PACKBUF_OK);
  for (unsigned i = 0; i < 3; i++) {
    expect_absent(w.a, "c56");
    expect_absent(w.b, "c56");
    expect(same_bytes(leases[2 - i].data, 100000, 562 - i));
    packbuf_lease_release(&leases[2 - i]);
  }
  expect_absent(w.a, "c56");
  expect_used(0);
}

static void *release_thread(void *context) {
  packbuf_lease_release((packbuf_lease *)context);
  return NULL;
}

static void release_elsewhere(packbuf_lease *lease) {
  pthread_t thread;
  expect(pthread_create(&thread, NULL, release_thread, lease) == 0);
  (void)pthread_join(thread, NULL);
}

static void c57_two_leases(void) {
  for (unsigned round = 0; round < 4; round++) {
    packbuf_lease one, two;
    packbuf_store *second = round % 2 ? w.a : w.b;
    (void)put(w.a, "c57", 100000, 57);
    expect_status(lease_by(w.a, "c57", 0, &one), PACKBUF_OK);
    expect_status(lease_by(second, "c57", 0, &two), PACKBUF_OK);
    expect_status(remove_by(w.a, "c57", 0, at_once()), w.can & PACKBUF_CAN_IN_PLACE ? PACKBUF_LEASED : PACKBUF_OK);
    release_elsewhere(round < 2 ? &one : &two);
    expect(same_bytes(round < 2 ? two.data : one.data, 100000, 57));
    if (w.can & PACKBUF_CAN_IN_PLACE) expect_used(102400);
    release_elsewhere(round < 2 ? &two : &one);
    expect_used(0);
  }
}

static void c58_close_busy(void) {
  packbuf_store *c = NULL;
  packbuf_lease lease;
  packbuf_slice slice;
  packbuf_item item = item_of("c58");
  packbuf_completion completion;
  uint64_t ticket = 0, count = 0;
  (void)put(w.a, "c58", 5000, 58);
  if (!expect_status(open_more(NULL, &c), PACKBUF_OK)) return;
  expect_status(lease_by(c, "c58", 0, &lease), PACKBUF_OK);
  expect_status(packbuf_store_close(c, packbuf_deadline_in(50), NULL), PACKBUF_LEASED);
  expect(same_bytes(lease.data, lease.size, 58));
  packbuf_lease_release(&lease);
  expect_status(reserve_one(c, 5000, in_time(), &slice), PACKBUF_OK);
  expect_status(packbuf_store_close(c, PACKBUF_NO_WAIT, NULL), PACKBUF_LEASED);
  packbuf_slice_release(&slice);
  expect_status(packbuf_submit(c, PACKBUF_STAT, &item, 1, in_time(), NULL, &ticket, NULL), PACKBUF_OK);
  expect_status(packbuf_store_close(c, packbuf_deadline_in(100), NULL), PACKBUF_LEASED);
  expect_status(packbuf_poll(c, &completion, 1, &count, in_time(), NULL), PACKBUF_OK);
  expect(count == 1 && item.status == PACKBUF_OK && item.stat.length == 5000);
  expect_status(stat_of(c, "c58", 0, NULL), PACKBUF_OK);
  expect_status(packbuf_store_close(c, in_time(), NULL), PACKBUF_OK);
  expect_status(packbuf_store_close(NULL, 0, NULL), PACKBUF_OK);
}
