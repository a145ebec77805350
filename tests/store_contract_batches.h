/* Cases C24 to C43 of store_contract.c: batches, statuses and ranges; slices, registration and memory. Test-only. */

/* ---- C24 to C33 ---- */

enum { MANY = 256 };

/* MANY keys, their bytes and where to get them; each of a size of its own. */
typedef struct many {
  packbuf_item items[MANY];
  char keys[MANY][24];
  uint8_t *from[MANY], *into[MANY];
  uint64_t sizes[MANY], generations[MANY], sum;
} many;

static many *many_new(const char *name) {
  many *m = (many *)calloc(1, sizeof *m);
  for (unsigned i = 0; i < MANY; i++) {
    m->sizes[i] = i % 16 == 15 ? 20000 + i : i * 7;
    m->sum += m->sizes[i];
    m->from[i] = take_memory(m->sizes[i] + 1);
    m->into[i] = take_memory(m->sizes[i] + 1);
    fill_bytes(m->from[i], m->sizes[i], 1000 + i);
    snprintf(m->keys[i], sizeof m->keys[i], "%s/%u", name, i);
  }
  return m;
}

/* Items for a put, a get into memory, or anything else. */
static void many_ask(many *m, int puts, int into) {
  for (unsigned i = 0; i < MANY; i++) {
    m->items[i] = item_of(m->keys[i]);
    if (puts) {
      m->items[i].from = m->from[i];
      m->items[i].size = m->sizes[i];
    }
    if (into) {
      memset(m->into[i], 0, (size_t)m->sizes[i]);
      m->items[i].into = m->into[i];
      m->items[i].capacity = m->sizes[i];
    }
  }
}

static void many_put(many *m) {
  many_ask(m, 1, 0);
  expect_status(run(w.a, PACKBUF_PUT, m->items, MANY, in_time()), PACKBUF_OK);
  for (unsigned i = 0; i < MANY; i++) m->generations[i] = m->items[i].stat.generation;
}

static void c24_many(void) {
  many *m = many_new("c24");
  packbuf_counters before, after;
  many_put(m);
  before = counters_of(w.b);
  many_ask(m, 0, 1);
  expect_status(run(w.b, PACKBUF_GET, m->items, MANY, in_time()), PACKBUF_OK);
  after = counters_of(w.b);
  for (unsigned i = 0; i < MANY; i++)
    expect(m->items[i].got == m->sizes[i] && same_bytes(m->into[i], m->sizes[i], 1000 + i));
  expect_number(after.bytes_got - before.bytes_got, m->sum);
  expect_number(after.gets - before.gets, MANY);
  many_ask(m, 0, 0);
  expect_status(run(w.b, PACKBUF_GET, m->items, MANY, in_time()), PACKBUF_OK);
  expect_number(counters_of(w.b).leases, MANY);
  for (unsigned i = 0; i < MANY; i++) {
    expect(m->items[i].lease.size == m->sizes[i] && same_bytes(m->items[i].lease.data, m->sizes[i], 1000 + i));
    packbuf_lease_release(&m->items[i].lease);
  }
  expect_status(run(w.b, PACKBUF_STAT, m->items, MANY, in_time()), PACKBUF_OK);
  for (unsigned i = 0; i < MANY; i++)
    expect(m->items[i].stat.length == m->sizes[i] && m->items[i].stat.generation == m->generations[i]);
  for (unsigned i = 0; i < MANY; i++) m->items[i].flags = remove_flags();
  expect_status(run(w.b, PACKBUF_REMOVE, m->items, MANY, in_time()), PACKBUF_OK);
  expect_used(0);
  free(m);
}

/* 256 gets of which 13 fail, each as it should; `bad`, of MANY, says how. */
static void many_spoil(many *m, packbuf_status *bad) {
  many_ask(m, 0, 1);
  for (unsigned i = 0; i < MANY; i++) {
    bad[i] = PACKBUF_OK;
    m->items[i].generation = m->generations[i];
  }
  for (unsigned i = 0; i < 7; i++) {
    m->items[20 + i * 31].key = "c25-missing";
    bad[20 + i * 31] = PACKBUF_NOT_FOUND;
  }
  for (unsigned i = 0; i < 3; i++) {
    m->items[25 + i * 70].generation++;
    bad[25 + i * 70] = PACKBUF_STALE;
  }
  m->items[63].capacity--;
  m->items[127].capacity = 0;
  bad[63] = bad[127] = PACKBUF_CAPACITY;
  m->items[200].key = "bad key";
  bad[200] = PACKBUF_INVALID_ARGUMENT;
}

static void c25_some_fail(void) {
  many *m = many_new("c25");
  packbuf_status bad[MANY];
  many_put(m);
  many_spoil(m, bad);
  expect_status(run(w.b, PACKBUF_GET, m->items, MANY, in_time()), PACKBUF_NOT_FOUND);
  expect_number(w.error.row, 20);
  for (unsigned i = 0; i < MANY; i++) {
    expect_status(m->items[i].status, bad[i]);
    if (!bad[i]) expect(m->items[i].got == m->sizes[i] && same_bytes(m->into[i], m->sizes[i], 1000 + i));
  }
  free(m);
}

static void c26_retry(void) {
  many *m = many_new("c26");
  packbuf_status bad[MANY];
  packbuf_counters before, after;
  uint64_t count = 0;
  many_put(m);
  many_spoil(m, bad);
  (void)run(w.b, PACKBUF_GET, m->items, MANY, in_time());
  for (unsigned i = 0; i < MANY; i++) {
    if (!m->items[i].status) continue;
    m->items[i].key = m->keys[i];
    m->items[i].generation = m->generations[i];
    m->items[i].capacity = m->sizes[i];
    m->items[count++] = m->items[i];
  }
  expect_number(count, 13);
  before = counters_of(w.b);
  expect_status(run(w.b, PACKBUF_GET, m->items, count, in_time()), PACKBUF_OK);
  after = counters_of(w.b);
  expect_number(after.gets - before.gets, 13);
  expect_number(after.failures - before.failures, 0);
  for (unsigned i = 0; i < MANY; i++) expect(same_bytes(m->into[i], m->sizes[i], 1000 + i));
  free(m);
}

/* As many keys as the store holds objects would leave none for anything else: 10,000 items of 2,500 keys. */
static void c27_none_and_many(void) {
  enum { ITEMS = 10000, KEYS = 2500 };
  packbuf_item *items = (packbuf_item *)calloc(ITEMS, sizeof *items), none = item_of("c27");
  char(*keys)[16] = (char(*)[16])calloc(KEYS, sizeof *keys);
  for (int op = PACKBUF_PUT; op <= PACKBUF_REMOVE; op++)
    expect_status(run(w.a, (packbuf_operation)op, &none, 0, in_time()), PACKBUF_OK);
  fill_bytes(w.source, ITEMS + 8, 27);
  for (unsigned i = 0; i < KEYS; i++) snprintf(keys[i], sizeof keys[i], "c27/%u", i);
  for (unsigned i = 0; i < ITEMS; i++) {
    items[i] = item_of(keys[i % KEYS]);
    items[i].from = w.source + i;
    items[i].size = 8;
  }
  expect_status(run(w.a, PACKBUF_PUT, items, ITEMS, in_time()), PACKBUF_OK);
  for (unsigned i = 0; i < ITEMS; i++) items[i] = item_of(keys[i % KEYS]);
  expect_status(run(w.b, PACKBUF_STAT, items, ITEMS, in_time()), PACKBUF_OK);
  for (unsigned i = 0; i < ITEMS; i++) expect(items[i].stat.length == 8);
  expect_status(run(w.b, PACKBUF_GET, items, ITEMS, in_time()), PACKBUF_OK);
  for (unsigned i = 0; i < ITEMS; i++) {
    expect(same_bytes_from(items[i].lease.data, 8, 27, ITEMS - KEYS + i % KEYS));
    packbuf_lease_release(&items[i].lease);
  }
  for (unsigned i = 0; i < KEYS; i++) items[i].flags = remove_flags();
  expect_status(run(w.a, PACKBUF_REMOVE, items, KEYS, in_time()), PACKBUF_OK);
  w.key_count = 0;
  free(items);
  free(keys);
}

/* Whether an answer is the ranges' bytes, end to end. */
static int ranges_right(const void *data, const packbuf_range *ranges, uint64_t count, uint64_t seed) {
  const uint8_t *bytes = (const uint8_t *)data;
  for (uint64_t i = 0; i < count; i++) {
    if (!same_bytes_from(bytes, ranges[i].length, seed, ranges[i].offset)) return 0;
    bytes += ranges[i].length;
  }
  return 1;
}

static packbuf_range range_of(uint64_t offset, uint64_t length) {
  packbuf_range range;
  range.offset = offset;
  range.length = length;
  return range;
}

/* Gets ranges both ways: C28 and C31. */
static void expect_ranges(const char *key, const packbuf_range *ranges, uint64_t count, uint64_t seed) {
  packbuf_item item = item_of(key);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) sum += ranges[i].length;
  memset(w.target, 0x5A, (size_t)sum + 64);
  item.ranges = ranges;
  item.range_count = count;
  item.into = w.target;
  item.capacity = sum;
  expect_status(run(w.b, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect_number(item.got, sum);
  expect(ranges_right(w.target, ranges, count, seed) && w.target[sum] == 0x5A);
  if (sum) {
    item.capacity = sum - 1;
    expect_status(run(w.b, PACKBUF_GET, &item, 1, in_time()), PACKBUF_CAPACITY);
  }
  item.into = NULL;
  item.capacity = 0;
  expect_status(run(w.b, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect_number(item.lease.size, sum);
  expect_number(item.got, sum);
  expect(ranges_right(item.lease.data, ranges, count, seed));
  packbuf_lease_release(&item.lease);
}

static void c28_ranges(void) {
  enum { SIZE = 300000 };
  packbuf_range ranges[1000];
  (void)put(w.a, "c28", SIZE, 28);
  ranges[0] = range_of(1000, 5000);
  expect_ranges("c28", ranges, 1, 28);
  ranges[0] = range_of(0, SIZE);
  expect_ranges("c28", ranges, 1, 28);
  ranges[0] = range_of(SIZE - 1, 1);
  expect_ranges("c28", ranges, 1, 28);
  ranges[0] = range_of(SIZE, 0);
  expect_ranges("c28", ranges, 1, 28);
  expect_ranges("c28", ranges, 0, 28);
  ranges[0] = range_of(77, 0);
  ranges[1] = range_of(200000, 3001);
  ranges[2] = range_of(100, 10);
  ranges[3] = range_of(105, 10);
  ranges[4] = range_of(0, 0);
  ranges[5] = range_of(SIZE - 7, 7);
  ranges[6] = range_of(50, 1);
  expect_ranges("c28", ranges, 7, 28);
  for (unsigned i = 0; i < 1000; i++) ranges[i] = range_of((uint64_t)(999 - i) * 299, 1 + i % 299);
  expect_ranges("c28", ranges, 1000, 28);
}

static void c29_out_of_range(void) {
  const packbuf_range good = range_of(10, 10);
  const packbuf_range bad[] = {range_of(1001, 0), range_of(1000, 1),       range_of(999, 2),
                               range_of(0, 1001), range_of(UINT64_MAX, 2), range_of(5, UINT64_MAX - 2)};
  enum { BAD = 6 };
  packbuf_item items[BAD * 2];
  uint8_t *into = take_memory(64 * BAD * 2);
  (void)put(w.a, "c29", 1000, 29);
  for (unsigned i = 0; i < BAD * 2; i++) {
    items[i] = item_of("c29");
    items[i].ranges = i % 2 ? &good : &bad[i / 2];
    items[i].range_count = 1;
    items[i].into = into + i * 64;
    items[i].capacity = 64;
  }
  expect_status(run(w.b, PACKBUF_GET, items, BAD * 2, in_time()), PACKBUF_OUT_OF_RANGE);
  for (unsigned i = 0; i < BAD * 2; i++) {
    expect_status(items[i].status, i % 2 ? PACKBUF_OK : PACKBUF_OUT_OF_RANGE);
    if (i % 2) expect(same_bytes_from(into + i * 64, 10, 29, 10));
    items[i].into = NULL;
    items[i].capacity = 0;
  }
  expect_status(run(w.b, PACKBUF_GET, items, BAD * 2, in_time()), PACKBUF_OUT_OF_RANGE);
  for (unsigned i = 0; i < BAD * 2; i++) {
    expect_status(items[i].status, i % 2 ? PACKBUF_OK : PACKBUF_OUT_OF_RANGE);
    packbuf_lease_release(&items[i].lease);
  }
}

static void c30_only_ranges_move(void) {
  packbuf_range ranges[3];
  packbuf_item item = item_of("c30");
  uint64_t before;
  (void)put(w.a, "c30", 16 * MIB, 30);
  for (unsigned i = 0; i < 3; i++) ranges[i] = range_of(i * 5 * MIB + 123, KIB);
  item.ranges = ranges;
  item.range_count = 3;
  item.into = w.target;
  item.capacity = 3 * KIB;
  before = counters_of(w.b).bytes_moved;
  expect_status(run(w.b, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect(ranges_right(w.target, ranges, 3, 30));
  if (w.can & PACKBUF_CAN_IN_PLACE) expect_number(counters_of(w.b).bytes_moved - before, 3 * KIB);
  else expect(counters_of(w.b).bytes_moved - before < 64 * KIB);
}

static void c31_ranges_leased(void) {
  packbuf_range ranges[4];
  packbuf_item items[3];
  (void)put(w.a, "c31", 100000, 31);
  ranges[0] = range_of(0, 100000);
  ranges[1] = range_of(4097, 10000);
  ranges[2] = range_of(99999, 1);
  ranges[3] = range_of(3, 3);
  for (unsigned i = 0; i < 3; i++) {
    items[i] = item_of("c31");
    items[i].ranges = ranges + i;
    items[i].range_count = i == 2 ? 2 : 1;
  }
  expect_status(run(w.b, PACKBUF_GET, items, 3, in_time()), PACKBUF_OK);
  expect_status(remove_by(w.a, "c31", 0, at_once()), w.can & PACKBUF_CAN_IN_PLACE ? PACKBUF_LEASED : PACKBUF_OK);
  for (unsigned i = 0; i < 3; i++) {
    expect(ranges_right(items[i].lease.data, items[i].ranges, items[i].range_count, 31));
    packbuf_lease_release(&items[i].lease);
  }
}

/* A large object that can never be put does not hold up the small ones behind it. */
static void c32_large_and_tiny(void) {
  enum { N = 40 };
  packbuf_item items[N];
  char keys[N][16];
  const uint64_t far_too_large = STORE_SIZE * 2, start = packbuf_now();
  void *large = mmap(NULL, far_too_large, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  int got = 1;
  w.registers = 1;
  expect_status(packbuf_register(w.a, large, far_too_large, NULL), PACKBUF_OK);
  for (unsigned i = 0; i < N; i++) {
    snprintf(keys[i], sizeof keys[i], "c32/%u", i);
    items[i] = item_of(keys[i]);
    items[i].size = i % 10 == 3 ? MIB + i : i + 1;
    items[i].from = take_memory(items[i].size);
    fill_bytes((void *)(uintptr_t)items[i].from, items[i].size, 3200 + i);
  }
  items[7].from = large;
  items[7].size = far_too_large;
  expect_status(run(w.a, PACKBUF_PUT, items, N, packbuf_deadline_in(10000)), PACKBUF_CAPACITY);
  expect(milliseconds_since(start) < 5000);
  for (unsigned i = 0; i < N; i++) {
    expect_status(items[i].status, i == 7 ? PACKBUF_CAPACITY : PACKBUF_OK);
    items[i].into = take_memory(i == 7 ? 64 : items[i].size);
    items[i].capacity = i == 7 ? 64 : items[i].size;
  }
  expect_status(run(w.b, PACKBUF_GET, items, N, in_time()), PACKBUF_NOT_FOUND);
  for (unsigned i = 0; i < N; i++)
    got = got && (i == 7 ? items[i].status == PACKBUF_NOT_FOUND
                         : !items[i].status && same_bytes(items[i].into, items[i].size, 3200 + i));
  expect(got);
  expect_status(packbuf_unregister(w.a, large, far_too_large, NULL), PACKBUF_OK);
  (void)munmap(large, far_too_large);
}

/* `run` compares the items of every call of this suite; here also what they point to. */
static void c33_inputs(void) {
  packbuf_ref about, about_before;
  packbuf_range ranges[2], ranges_before[2];
  packbuf_item items[3];
  char key[] = "c33";
  memset(&about, 0x33, sizeof about);
  about.kind = PACKBUF_OBJECT_BATCH;
  about.head_length = 192;
  about_before = about;
  ranges[0] = ranges_before[0] = range_of(5, 10);
  ranges[1] = ranges_before[1] = range_of(2000, 10);
  fill_bytes(w.source, 3000, 33);
  for (unsigned i = 0; i < 3; i++) {
    items[i] = item_of(i == 1 ? "bad key" : key);
    items[i].from = w.source + i;
    items[i].size = 1000;
    items[i].about = &about;
    items[i].ranges = ranges;
    items[i].range_count = 2 - i % 2;
    items[i].into = w.target + 4096 * i;
    items[i].capacity = 4096;
  }
  expect_status(run(w.a, PACKBUF_PUT, items, 3, in_time()), PACKBUF_INVALID_ARGUMENT);
  expect_status(run(w.a, PACKBUF_GET, items, 3, in_time()), PACKBUF_OUT_OF_RANGE);
  expect_status(run(w.a, PACKBUF_STAT, items, 3, in_time()), PACKBUF_INVALID_ARGUMENT);
  for (unsigned i = 0; i < 3; i++) items[i].flags = remove_flags();
  expect_status(run(w.a, PACKBUF_REMOVE, items, 3, in_time()), PACKBUF_INVALID_ARGUMENT);
  expect(memcmp(&about, &about_before, sizeof about) == 0 && memcmp(ranges, ranges_before, sizeof ranges) == 0);
  expect(strcmp(key, "c33") == 0 && same_bytes(w.source, 3000, 33));
}

/* ---- C34 to C43: slices, registration, memory ---- */

static packbuf_status reserve_one(packbuf_store *store, uint64_t size, uint64_t deadline, packbuf_slice *slice) {
  memset(slice, 0, sizeof *slice);
  return packbuf_reserve(store, 0, &size, 1, deadline, slice, &w.error);
}

static packbuf_status put_slice(packbuf_store *store, const char *key, packbuf_slice *slice, uint64_t size) {
  packbuf_item item = item_of(key);
  item.slice = slice;
  item.from = slice->data;
  item.size = size;
  return run(store, PACKBUF_PUT, &item, 1, in_time());
}

/* Many slices in one call: those that fit together; and those that never could, though many of them would. */
static void c34_all_or_none(void) {
  enum { SLICES = 100 };
  packbuf_slice slices[SLICES];
  uint64_t sizes[SLICES];
  const uint64_t start = packbuf_now();
  for (unsigned i = 0; i < SLICES; i++) sizes[i] = 500 * KIB;
  expect_status(packbuf_reserve(w.a, 0, sizes, SLICES, in_time(), slices, &w.error), PACKBUF_OK);
  for (unsigned i = 0; i < SLICES; i++) {
    expect(slices[i].data != NULL && slices[i].size == 500 * KIB);
    packbuf_slice_release(&slices[i]);
  }
  for (unsigned i = 0; i < SLICES; i++) sizes[i] = 900 * KIB;
  expect_status(packbuf_reserve(w.a, 0, sizes, SLICES, in_time(), slices, &w.error), PACKBUF_CAPACITY);
  for (unsigned i = 0; i < SLICES; i++) expect(slices[i].data == NULL);
  expect_number(counters_of(w.a).slices, 0);
  expect(milliseconds_since(start) < 10000);
}

/* Three reservations of 20 MiB would not fit without the first one's tail. */
static void c34_slices(void) {
  packbuf_slice slice, more[32];
  unsigned count = 0;
  expect_status(reserve_one(w.a, 20 * MIB, in_time(), &slice), PACKBUF_OK);
  expect(slice.size == 20 * MIB && (uintptr_t)slice.data % 4096 == 0);
  expect_number(counters_of(w.a).slices, 1);
  fill_bytes(slice.data, 5000, 34);
  expect_status(put_slice(w.a, "c34", &slice, 5000), PACKBUF_OK);
  expect(slice.data == NULL && slice.size == 0 && slice.holder == NULL);
  expect_number(counters_of(w.a).slices, 0);
  expect_get(w.b, "c34", 0, 5000, 34);
  if (w.can & PACKBUF_CAN_IN_PLACE) expect_used(8192);
  expect_status(reserve_one(w.a, 20 * MIB, at_once(), &slice), PACKBUF_OK);
  while (count < 32 && reserve_one(w.a, 2 * MIB, PACKBUF_NO_WAIT, &more[count]) == PACKBUF_OK) count++;
  expect(count >= 20);
  while (count) packbuf_slice_release(&more[--count]);
  packbuf_slice_release(&slice);
  expect(slice.data == NULL);
  packbuf_slice_release(&slice);
  c34_all_or_none();
}

static void c35_slice_stays(void) {
  packbuf_slice slice, before;
  expect_status(reserve_one(w.a, 10000, in_time(), &slice), PACKBUF_OK);
  fill_bytes(slice.data, 10000, 35);
  before = slice;
  expect_status(put_slice(w.a, "bad key", &slice, 10000), PACKBUF_INVALID_ARGUMENT);
  expect_status(put_slice(w.a, "c35", &slice, 10001), PACKBUF_INVALID_ARGUMENT);
  expect(memcmp(&before, &slice, sizeof slice) == 0 && same_bytes(slice.data, 10000, 35));
  expect_number(counters_of(w.a).slices, 1);
  expect_status(put_slice(w.a, "c35", &slice, 10000), PACKBUF_OK);
  expect_get(w.b, "c35", 0, 10000, 35);
}

static void c36_reserve_often(void) {
  enum { OUT = 16, ROUNDS = 10000 };
  packbuf_slice slices[OUT];
  chance c = {36};
  memset(slices, 0, sizeof slices);
  for (unsigned i = 0; i < ROUNDS; i++) {
    packbuf_slice *slice = &slices[chance_below(&c, OUT)];
    packbuf_slice_release(slice);
    if (!expect_status(reserve_one(w.a, 1 + chance_below(&c, 256 * KIB), in_time(), slice), PACKBUF_OK)) break;
    *(uint8_t *)slice->data = (uint8_t)i;
    ((uint8_t *)slice->data)[slice->size - 1] = (uint8_t)i;
  }
  for (unsigned i = 0; i < OUT; i++) packbuf_slice_release(&slices[i]);
  {
    const uint64_t sizes[3] = {1, 100000, 4096};
    packbuf_slice three[3];
    expect_status(packbuf_reserve(w.a, 0, sizes, 3, in_time(), three, NULL), PACKBUF_OK);
    expect_number(counters_of(w.a).slices, 3);
    for (unsigned i = 0; i < 3; i++) expect(three[i].size == sizes[i]);
    for (unsigned i = 3; i--;) packbuf_slice_release(&three[i]);
  }
  expect_number(counters_of(w.a).slices, 0);
  expect_number(counters_of(w.a).pool_used, 0);
  expect_used(0);
}

static void c37_steady(void) {
  uint64_t registrations[2] = {0, 0};
  for (unsigned i = 0; i < 1010; i++) {
    packbuf_slice slice;
    if (i == 10) registrations[0] = counters_of(w.a).registrations, registrations[1] = counters_of(w.b).registrations;
    if (i % 2) {
      expect_status(reserve_one(w.a, 3000, in_time(), &slice), PACKBUF_OK);
      fill_bytes(slice.data, 3000, i);
      if (!expect_status(put_slice(w.a, "c37", &slice, 3000), PACKBUF_OK)) break;
    } else (void)put(w.a, "c37", 3000, i);
    expect_get(w.b, "c37", 0, 3000, i);
  }
  expect_number(counters_of(w.a).registrations, registrations[0]);
  expect_number(counters_of(w.b).registrations, registrations[1]);
}

/* Pages of their own, not registered with anyone. */
static uint8_t *pages_new(uint64_t size, void *at) {
  void *pages = mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
  if (pages != MAP_FAILED) return (uint8_t *)pages;
  fprintf(stderr, "no memory\n");
  exit(2);
}

static packbuf_status put_memory(packbuf_store *store, const char *key, const void *from, uint64_t size) {
  packbuf_item item = item_of(key);
  item.from = from;
  item.size = size;
  return run(store, PACKBUF_PUT, &item, 1, in_time());
}

static packbuf_status get_memory(packbuf_store *store, const char *key, void *into, uint64_t size) {
  packbuf_item item = item_of(key);
  item.into = into;
  item.capacity = size;
  return run(store, PACKBUF_GET, &item, 1, in_time());
}

/* A handle that registers nothing by itself. */
static packbuf_store *strict_handle(void) {
  packbuf_store_options options = contract_options();
  packbuf_store *store = NULL;
  options.no_auto_register = 1;
  expect_status(open_more(&options, &store), PACKBUF_OK);
  return store;
}

static void c38_unregistered(void) {
  packbuf_store *strict = strict_handle();
  uint8_t *pages = pages_new(65536, NULL);
  uint64_t moved;
  int untouched = 1;
  if (!strict) return;
  fill_bytes(pages, 30000, 38);
  moved = counters_of(strict).bytes_moved;
  expect_status(put_memory(strict, "c38", pages + 100, 29000), PACKBUF_UNREGISTERED);
  expect_number(w.error.offset, (uintptr_t)(pages + 100));
  expect_absent(w.a, "c38");
  (void)put(w.a, "c38", 5000, 39);
  memset(pages, 0x38, 65536);
  expect_status(get_memory(strict, "c38", pages + 8, 5000), PACKBUF_UNREGISTERED);
  expect_number(w.error.offset, (uintptr_t)(pages + 8));
  for (unsigned i = 0; i < 65536; i++) untouched &= pages[i] == 0x38;
  expect(untouched);
  expect_number(counters_of(strict).bytes_moved, moved);
  expect_status(packbuf_register(strict, pages, 65536, NULL), PACKBUF_OK);
  fill_bytes(pages, 30000, 38);
  expect_status(put_memory(strict, "c38", pages, 30000), PACKBUF_OK);
  expect_status(get_memory(strict, "c38", pages + 32768, 30000), PACKBUF_OK);
  expect(same_bytes(pages + 32768, 30000, 38));
  expect_status(packbuf_unregister(strict, pages, 65536, NULL), PACKBUF_OK);
  expect_status(put_memory(strict, "c38", pages, 1), PACKBUF_UNREGISTERED);
  expect_status(packbuf_store_close(strict, in_time(), NULL), PACKBUF_OK);
  (void)munmap(pages, 65536);
}

/* Registers a range, and looks at how many registrations were made for it and how many bytes are registered then. */
static void expect_register(packbuf_store *store, const uint8_t *at, uint64_t size, uint64_t more,
                            uint64_t registered) {
  const uint64_t before = counters_of(store).registrations;
  expect_status(packbuf_register(store, at, size, NULL), PACKBUF_OK);
  expect_number(counters_of(store).registrations - before, more);
  expect_number(counters_of(store).registered, registered);
}

static void c39_unions(void) {
  enum { K = 1024, SIZE = 256 * 1024 };
  static const unsigned char orders[4][5] = {{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 4, 0, 3, 1}, {3, 0, 4, 1, 2}};
  static const uint64_t at[5] = {0, 0, 64 * K, 32 * K, 96 * K};
  packbuf_store *strict = strict_handle();
  uint8_t *pages = pages_new(SIZE, NULL);
  uint64_t base;
  if (!strict) return;
  base = counters_of(strict).registered;
  for (unsigned round = 0; round < 4; round++) {
    expect_register(strict, pages + at[0], 64 * K, 1, base + 64 * K);
    expect_register(strict, pages + at[1], 64 * K, 0, base + 64 * K);  /* once more */
    expect_register(strict, pages + at[2], 64 * K, 1, base + 128 * K); /* touches */
    expect_register(strict, pages + at[3], 64 * K, 0, base + 128 * K); /* contained */
    expect_register(strict, pages + at[4], 64 * K, 1, base + 160 * K); /* overlaps */
    for (unsigned i = 0; i < 5; i++) {
      const unsigned last = orders[round][4];
      expect_status(put_memory(strict, "c39", pages + at[last], 64 * K), PACKBUF_OK);
      if (i == 0) expect_status(put_memory(strict, "c39", pages, 160 * K), PACKBUF_OK);
      expect_status(packbuf_unregister(strict, pages + at[orders[round][i]], 64 * K, NULL), PACKBUF_OK);
    }
    expect_number(counters_of(strict).registered, base);
    expect_status(put_memory(strict, "c39", pages, 64 * K), PACKBUF_UNREGISTERED);
    expect_status(packbuf_unregister(strict, pages, 64 * K, NULL), PACKBUF_NOT_FOUND);
  }
  expect_register(strict, pages, 4096, 1, base + 4096);
  expect_status(packbuf_unregister(strict, pages, 4095, NULL), PACKBUF_NOT_FOUND);
  expect_status(packbuf_unregister(strict, pages, 4096, NULL), PACKBUF_OK);
  expect_status(packbuf_store_close(strict, in_time(), NULL), PACKBUF_OK);
  (void)munmap(pages, SIZE);
}

/* Memory that went and came again at the same place; unregistered before (C40), or not (C41). */
static void remapped(const char *key, int unregisters) {
  enum { SIZE = 65536 };
  packbuf_store *strict = strict_handle();
  uint8_t *pages = pages_new(SIZE, NULL);
  if (!strict) return;
  fill_bytes(pages, SIZE, 40);
  expect_status(packbuf_register(strict, pages, SIZE, NULL), PACKBUF_OK);
  expect_status(put_memory(strict, key, pages, SIZE), PACKBUF_OK);
  expect_get(w.b, key, 0, SIZE, 40);
  if (unregisters) expect_status(packbuf_unregister(strict, pages, SIZE, NULL), PACKBUF_OK);
  (void)munmap(pages, SIZE);
  (void)pages_new(SIZE, pages);
  fill_bytes(pages, SIZE, 41);
  expect_register(strict, pages, SIZE, 1, counters_of(strict).registered + (unregisters ? SIZE : 0));
  expect_status(put_memory(strict, key, pages, SIZE), PACKBUF_OK);
  expect_get(w.b, key, 0, SIZE, 41);
  expect_status(get_memory(strict, key, pages, SIZE), PACKBUF_OK);
  expect_status(packbuf_unregister(strict, pages, SIZE, NULL), PACKBUF_OK);
  expect_status(packbuf_unregister(strict, pages, SIZE, NULL), unregisters ? PACKBUF_NOT_FOUND : PACKBUF_OK);
  expect_status(packbuf_store_close(strict, in_time(), NULL), PACKBUF_OK);
  (void)munmap(pages, SIZE);
}

static void c40_remapped(void) { remapped("c40", 1); }
static void c41_remapped_unsaid(void) { remapped("c41", 0); }

static void c42_file_mapping(void) {
  enum { SIZE = 40960 };
  packbuf_store *strict = strict_handle();
  FILE *file = tmpfile();
  uint8_t *bytes = (uint8_t *)malloc(SIZE);
  void *mapped = MAP_FAILED;
  fill_bytes(bytes, SIZE, 42);
  expect(file && fwrite(bytes, 1, SIZE, file) == SIZE && fflush(file) == 0);
  if (file) mapped = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fileno(file), 0);
  if (strict && expect(mapped != MAP_FAILED)) {
    const uint8_t *from = (const uint8_t *)mapped;
    expect_status(packbuf_register(strict, from, 8192, NULL), PACKBUF_OK);
    expect_status(packbuf_register(strict, from + 8192, SIZE - 8192, NULL), PACKBUF_OK);
    expect_status(put_memory(strict, "c42", from, SIZE), PACKBUF_OK);
    expect_get(w.b, "c42", 0, SIZE, 42);
    expect_status(put_memory(strict, "c42", from + 4095, 4096 * 2), PACKBUF_OK);
    expect_status(get_memory(w.b, "c42", w.target, SIZE), PACKBUF_OK);
    expect(same_bytes_from(w.target, 8192, 42, 4095));
    expect_status(packbuf_unregister(strict, from, 8192, NULL), PACKBUF_OK);
    expect_status(packbuf_unregister(strict, from + 8192, SIZE - 8192, NULL), PACKBUF_OK);
    (void)munmap(mapped, SIZE);
  }
  expect_status(packbuf_store_close(strict, in_time(), NULL), PACKBUF_OK);
  if (file) (void)fclose(file);
  free(bytes);
}

static packbuf_status lease_for(uint32_t account, uint64_t deadline, packbuf_lease *lease) {
  packbuf_item item = item_of("c43");
  packbuf_status status;
  item.account = account;
  status = run(w.b, PACKBUF_GET, &item, 1, deadline);
  *lease = item.lease;
  return status;
}

static void c43_account_quota(void) {
  packbuf_lease leases[4];
  uint64_t start;
  (void)put(w.a, "c43", 100000, 43);
  expect_status(packbuf_store_quota(w.b, 3, 250000, NULL), PACKBUF_OK);
  expect_status(packbuf_store_quota(w.b, 64, 250000, NULL), PACKBUF_INVALID_ARGUMENT);
  expect_status(lease_for(3, in_time(), &leases[0]), PACKBUF_OK);
  expect_status(lease_for(3, in_time(), &leases[1]), PACKBUF_OK);
  expect_status(lease_for(3, at_once(), &leases[2]), PACKBUF_QUOTA);
  start = packbuf_now();
  expect_status(lease_for(3, packbuf_deadline_in(150), &leases[2]), PACKBUF_QUOTA);
  expect(milliseconds_since(start) >= 149 && milliseconds_since(start) < 2000);
  expect_status(lease_for(4, in_time(), &leases[3]), PACKBUF_OK);
  packbuf_lease_release(&leases[0]);
  expect_status(lease_for(3, at_once(), &leases[2]), PACKBUF_OK);
  for (unsigned i = 1; i < 4; i++) {
    expect(same_bytes(leases[i].data, 100000, 43));
    packbuf_lease_release(&leases[i]);
  }
  expect_status(packbuf_store_quota(w.b, 3, UINT64_MAX, NULL), PACKBUF_OK);
}
