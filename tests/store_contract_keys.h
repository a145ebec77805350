/* Cases C1 to C23 of store_contract.c: one key at a time, and its generations. Test-only. */

/* ---- C1 to C14: put, get, stat, remove of one key ---- */

static void c1_plain(void) {
  packbuf_stat stat;
  packbuf_item item = item_of("c1");
  const uint64_t generation = put(w.a, "c1", 100, 1);
  expect(generation != 0);
  item.into = w.target;
  item.capacity = 100;
  expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect(item.got == 100 && same_bytes(w.target, 100, 1));
  expect_get(w.a, "c1", 0, 100, 1);
  expect_get(w.b, "c1", generation, 100, 1);
  expect_status(stat_of(w.b, "c1", generation, &stat), PACKBUF_OK);
  expect(stat.length == 100 && stat.kind == PACKBUF_OBJECT_BYTES && stat.generation == generation);
}

static void c2_sizes(void) {
  static const uint64_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 65536, MIB + 1, 20 * MIB};
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    packbuf_stat stat;
    (void)put(w.a, "c2", sizes[i], i);
    expect_get(w.b, "c2", 0, sizes[i], i);
    expect_status(stat_of(w.b, "c2", 0, &stat), PACKBUF_OK);
    expect_number(stat.length, sizes[i]);
  }
}

static void c3_canaries(void) {
  enum { SIZE = 1000 };
  (void)put(w.a, "c3", SIZE, 3);
  for (unsigned offset = 0; offset < 64; offset++) {
    uint8_t *at = w.target + 4096 + offset;
    packbuf_item item = item_of("c3");
    int untouched = 1;
    memset(w.target, 0xC3, 12288);
    item.into = at;
    item.capacity = SIZE;
    expect_status(run(w.b, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
    expect(same_bytes(at, SIZE, 3));
    for (uint8_t *p = w.target; p < w.target + 12288; p++) untouched &= (p >= at && p < at + SIZE) || *p == 0xC3;
    expect(untouched);
  }
}

static void c4_never_was(void) {
  expect_status(get_both(w.a, "c4", 0, 0, 0), PACKBUF_NOT_FOUND);
  expect(strcmp(w.error.path, "c4") == 0 && w.error.row == 0);
  expect_status(stat_of(w.a, "c4", 0, NULL), PACKBUF_NOT_FOUND);
  expect(strcmp(w.error.path, "c4") == 0 && w.error.row == 0);
  expect_status(remove_by(w.a, "c4", 0, in_time()), PACKBUF_NOT_FOUND);
  expect(strcmp(w.error.path, "c4") == 0 && w.error.row == 0);
}

static void c5_capacity(void) {
  packbuf_item item = item_of("c5");
  int untouched = 1;
  (void)put(w.a, "c5", 5000, 5);
  memset(w.target, 0xC5, 8192);
  item.into = w.target;
  item.capacity = 4999;
  expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_CAPACITY);
  for (unsigned i = 0; i < 8192; i++) untouched &= w.target[i] == 0xC5;
  expect(untouched);
  item.capacity = 5001;
  expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect(same_bytes(w.target, 5000, 5) && w.target[5000] == 0xC5);
}

static void c6_other_side(void) {
  order o = order_of(DO_GET, "c6");
  answer a;
  (void)put(w.a, "c6", 123457, 6);
  o.size = 123457;
  o.seed = 6;
  a = other_does(o);
  expect(a.status == PACKBUF_OK && a.good);
  a = other_leases_it("c6", 0, 123457, 6, 0);
  expect(a.status == PACKBUF_OK && a.good);
  other_releases(0);
  a = other_puts("c6", 77777, 66);
  expect_status(a.status, PACKBUF_OK);
  expect_get(w.a, "c6", w.can & PACKBUF_CAN_NEWEST ? 0 : a.generation, 77777, 66);
}

static void c7_keys(void) {
  static char longest[PACKBUF_MAX_KEY + 1], last[PACKBUF_MAX_KEY + 1];
  const char *keys[] = {
      "7",   longest, last,  "c7/a.b@c#d%e", "c7/a.b@c#d%20", "c7/\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80",
      "c7/", "c7/x",  "c7/y"};
  enum { N = 9 };
  memset(longest, 'k', PACKBUF_MAX_KEY);
  memset(last, 'k', PACKBUF_MAX_KEY);
  last[PACKBUF_MAX_KEY - 1] = 'l';
  for (unsigned i = 0; i < N; i++) (void)put(w.a, keys[i], 100 + i, 700 + i);
  for (unsigned i = 0; i < N; i++) expect_get(w.b, keys[i], 0, 100 + i, 700 + i);
  if (w.can & PACKBUF_CAN_LIST) {
    packbuf_listed *listed = (packbuf_listed *)calloc(64, sizeof *listed);
    uint64_t cursor = 0, count = 0;
    unsigned seen = 0;
    expect_status(packbuf_store_list(w.b, NULL, &cursor, listed, 64, &count, in_time(), NULL), PACKBUF_OK);
    for (uint64_t i = 0; i < count; i++)
      for (unsigned k = 0; k < N; k++) seen += strcmp(listed[i].key, keys[k]) == 0 && listed[i].stat.length == 100 + k;
    expect_number(seen, N);
    free(listed);
  }
}

static void c8_bad_keys(void) {
  static char large[PACKBUF_MAX_KEY + 2];
  const char *keys[] = {"",      large,   "a b",   "a\tb",     "a\nb",         "\x01",
                        "a\x7F", "a\xFF", "a\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80"};
  const uint64_t objects = info_of(w.a).objects;
  memset(large, 'k', PACKBUF_MAX_KEY + 1);
  for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++) {
    packbuf_item item = item_of(keys[i]);
    item.from = w.source;
    item.size = 10;
    expect_status(run(w.a, PACKBUF_PUT, &item, 1, in_time()), PACKBUF_INVALID_ARGUMENT);
    expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_INVALID_ARGUMENT);
    expect_status(run(w.a, PACKBUF_STAT, &item, 1, in_time()), PACKBUF_INVALID_ARGUMENT);
    expect_status(run(w.a, PACKBUF_REMOVE, &item, 1, in_time()), PACKBUF_INVALID_ARGUMENT);
  }
  {
    packbuf_item item = item_of(NULL);
    item.status = UNSET;
    expect_status(packbuf_batch_get(w.a, &item, 1, in_time(), NULL), PACKBUF_INVALID_ARGUMENT);
    expect_status(item.status, PACKBUF_INVALID_ARGUMENT);
  }
  expect_number(info_of(w.a).objects, objects);
  expect_used(0);
}

static int stat_about(const packbuf_stat *stat, const packbuf_ref *about) {
  return stat->kind == about->kind && stat->head_length == about->head_length &&
         stat->head_checksum == about->head_checksum &&
         memcmp(stat->fingerprint, about->fingerprint, PACKBUF_FINGERPRINT) == 0;
}

static void c9_about(void) {
  packbuf_ref about;
  packbuf_item item = item_of("c9");
  packbuf_stat stat;
  memset(&about, 0, sizeof about);
  about.kind = PACKBUF_OBJECT_BATCH;
  about.head_length = 192;
  about.head_checksum = 0xDEADBEEF;
  for (unsigned i = 0; i < PACKBUF_FINGERPRINT; i++) about.fingerprint[i] = (uint8_t)(i + 1);
  fill_bytes(w.source, 1000, 9);
  item.from = w.source;
  item.size = 1000;
  item.about = &about;
  expect_status(run(w.a, PACKBUF_PUT, &item, 1, in_time()), PACKBUF_OK);
  expect(stat_about(&item.stat, &about));
  expect_status(stat_of(w.b, "c9", 0, &stat), PACKBUF_OK);
  expect(stat_about(&stat, &about));
  item = item_of("c9");
  expect_status(run(w.b, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect(stat_about(&item.stat, &about));
  packbuf_lease_release(&item.lease);
  if (w.can & PACKBUF_CAN_LIST) {
    packbuf_listed listed;
    uint64_t cursor = 0, count = 0;
    memset(&listed, 0, sizeof listed);
    expect_status(packbuf_store_list(w.b, "c9", &cursor, &listed, 1, &count, in_time(), NULL), PACKBUF_OK);
    expect(count == 1 && stat_about(&listed.stat, &about) && listed.stat.length == 1000);
  }
}

static void c10_remove(void) {
  (void)put(w.a, "c10", 70000, 10);
  if (knows_used()) expect(used_more() >= 70000);
  expect_status(remove_by(w.a, "c10", 0, in_time()), PACKBUF_OK);
  expect_absent(w.a, "c10");
  expect_status(remove_by(w.a, "c10", 0, in_time()), PACKBUF_NOT_FOUND);
  expect_used(0);
}

static void c11_put_again(void) {
  const uint64_t first = put(w.a, "c11", 1000, 11);
  uint64_t second;
  expect_status(remove_by(w.a, "c11", first, in_time()), PACKBUF_OK);
  second = put(w.a, "c11", 2000, 12);
  expect(second > first);
  expect_get(w.b, "c11", second, 2000, 12);
}

static void c12_newest(void) {
  uint64_t last = 0;
  for (unsigned i = 0; i < 100; i++) {
    uint64_t generation;
    if (i % 2) {
      const answer a = other_puts("c12", 100 + i, i);
      expect_status(a.status, PACKBUF_OK);
      generation = a.generation;
    } else generation = put(w.a, "c12", 100 + i, i);
    expect(generation > last);
    last = generation;
  }
  expect_get(w.a, "c12", 0, 199, 99);
  expect_get(w.b, "c12", last, 199, 99);
}

static void c13_read_only(void) {
  packbuf_store_options options = contract_options();
  packbuf_store *reader = NULL;
  const uint64_t size = 10;
  packbuf_slice slice;
  options.read_only = 1;
  (void)put(w.a, "c13", 5000, 13);
  if (!expect_status(open_more(&options, &reader), PACKBUF_OK)) return;
  expect_status(packbuf_register(reader, w.source, 3 * ZONE, NULL), PACKBUF_OK);
  expect_status(put_by(reader, "c13", 10, 1, in_time(), NULL), PACKBUF_READ_ONLY);
  expect_status(remove_by(reader, "c13", 0, in_time()), PACKBUF_READ_ONLY);
  expect_status(packbuf_reserve(reader, 0, &size, 1, in_time(), &slice, NULL), PACKBUF_READ_ONLY);
  expect_get(reader, "c13", 0, 5000, 13);
  expect_status(packbuf_unregister(reader, w.source, 3 * ZONE, NULL), PACKBUF_OK);
  expect_status(packbuf_store_close(reader, in_time(), NULL), PACKBUF_OK);
}

static void c14_no_writing(void) {
  packbuf_lease lease;
  int status = 0;
  pid_t child;
  (void)put(w.a, "c14", 5000, 14);
  if (!expect_status(lease_by(w.b, "c14", 0, &lease), PACKBUF_OK)) return;
  fflush(stdout);
  child = fork();
  if (child == 0) {
    (void)signal(SIGSEGV, SIG_DFL);
    *(volatile uint8_t *)(uintptr_t)lease.data = 1;
    _exit(0);
  }
  (void)waitpid(child, &status, 0);
  expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  expect(same_bytes(lease.data, lease.size, 14));
  packbuf_lease_release(&lease);
}

/* ---- C15 to C23: generations ---- */

static void c15_stale(void) {
  const uint64_t first = put(w.a, "c15", 3000, 15);
  (void)put(w.a, "c15", 3000, 16);
  expect_status(get_both(w.b, "c15", first, 0, 0), PACKBUF_STALE);
  expect(strcmp(w.error.path, "c15") == 0);
  expect_status(stat_of(w.b, "c15", first, NULL), PACKBUF_STALE);
  expect_get(w.b, "c15", 0, 3000, 16);
}

static void c16_stale_later(void) {
  const uint64_t first = put(w.a, "c16", 3000, 15), start = packbuf_now();
  packbuf_status status = PACKBUF_OK;
  const uint64_t second = put(w.a, "c16", 3000, 16);
  while (milliseconds_since(start) < 30000) {
    packbuf_item item = item_of("c16");
    item.generation = first;
    status = run(w.b, PACKBUF_GET, &item, 1, in_time());
    if (status) break;
    expect(same_bytes(item.lease.data, item.lease.size, 15));
    packbuf_lease_release(&item.lease);
    expect_status(packbuf_store_collect(w.a, in_time(), NULL, NULL), PACKBUF_OK);
    sleep_ms(50);
  }
  expect_status(status, PACKBUF_STALE);
  expect_get(w.b, "c16", second, 3000, 16);
}

static void c17_wrong_generation(void) {
  const uint64_t generation = put(w.a, "c17", 100, 17);
  expect_status(get_both(w.b, "c17", generation + 1, 0, 0), PACKBUF_STALE);
  expect_status(stat_of(w.b, "c17", generation + 1, NULL), PACKBUF_STALE);
  expect_status(remove_by(w.b, "c17", generation + 1, in_time()), PACKBUF_STALE);
  expect_get(w.a, "c17", generation, 100, 17);
}

static void c18_remove_old(void) {
  const uint64_t first = put(w.a, "c18", 100, 17), second = put(w.a, "c18", 200, 18);
  const packbuf_status status = remove_by(w.a, "c18", first, in_time());
  expect(second > first);
  if (w.can & PACKBUF_CAN_SUPERSEDE) expect(status == PACKBUF_STALE || status == PACKBUF_NOT_FOUND);
  expect_get(w.b, "c18", second, 200, 18);
}

static void c19_leased_old(void) {
  const uint64_t first = put(w.a, "c19", 300000, 19);
  answer a = other_leases_it("c19", first, 300000, 19, 0);
  uint64_t second;
  expect(!a.status && a.good);
  second = put(w.a, "c19", 300000, 20);
  for (unsigned i = 0; i < 10; i++) (void)put(w.a, "c19/more", 300000, 21 + i);
  expect(other_still_sees(300000, 19, 0));
  a = other_leases_it("c19", second, 300000, 20, 1);
  expect(!a.status && a.good);
  other_releases(0);
  expect(other_still_sees(300000, 20, 1));
  other_releases(1);
}

static void c20_newest_in_a_loop(void) {
  enum { PUTS = 2000 };
  order o = order_of(DO_READ_LOOP, "c20");
  answer a;
  uint8_t *memory = take_memory(20001);
  uint64_t last = 0;
  o.count = PUTS;
  o.within_ms = 60000;
  remember_key("c20");
  other_begin(o);
  for (unsigned i = 0; i < PUTS; i++) {
    packbuf_stat stat;
    if (!expect_status(loop_put(w.a, "c20", i, memory, &stat), PACKBUF_OK)) break;
    expect(stat.generation > last);
    last = stat.generation;
  }
  a = other_answer();
  expect(a.good);
  expect_status(a.status, PACKBUF_OK);
  expect_number(a.generation, last);
  expect(a.count > 1);
}

static void c21_key_three_times(void) {
  packbuf_item items[3];
  for (unsigned i = 0; i < 3; i++) {
    uint8_t *memory = take_memory(1000);
    fill_bytes(memory, 1000, 21 + i);
    items[i] = item_of("c21");
    items[i].from = memory;
    items[i].size = 1000;
  }
  expect_status(run(w.a, PACKBUF_PUT, items, 3, in_time()), PACKBUF_OK);
  expect(items[0].stat.generation < items[1].stat.generation && items[1].stat.generation < items[2].stat.generation);
  expect_get(w.b, "c21", items[2].stat.generation, 1000, 23);
  if (w.can & PACKBUF_CAN_NEWEST) expect_get(w.b, "c21", 0, 1000, 23);
  if (!(w.can & PACKBUF_CAN_SUPERSEDE)) return;
  expect_status(get_both(w.b, "c21", items[0].stat.generation, 0, 0), PACKBUF_STALE);
  expect_status(get_both(w.b, "c21", items[1].stat.generation, 0, 0), PACKBUF_STALE);
}

static void c22_generations_grow(void) {
  uint64_t last = put(w.a, "c22", 100, 22);
  for (unsigned i = 0; i < 3; i++) {
    uint64_t generation;
    other_end_process();
    close_handles();
    if (!open_handles()) return;
    w.registrations[0] = counters_of(w.a).registrations;
    w.registrations[1] = counters_of(w.b).registrations;
    if (w.can & PACKBUF_CAN_OUTLIVE) expect_get(w.b, "c22", last, 100, 22 + i);
    other_start();
    generation = put(i % 2 ? w.a : w.b, "c22", 100, 23 + i);
    expect(generation > last);
    last = generation;
  }
}

static void c23_both_put(void) {
  enum { PUTS = 500 };
  order o = order_of(DO_PUT_LOOP, "c23");
  uint8_t *memory = take_memory(20001);
  packbuf_item item = item_of("c23");
  packbuf_stat stat;
  answer a;
  uint64_t last = 0;
  o.count = PUTS;
  other_begin(o);
  for (unsigned i = 0; i < PUTS; i++) {
    if (!expect_status(loop_put(w.a, "c23", 100000 + i, memory, &stat), PACKBUF_OK)) break;
    expect(stat.generation > last);
    last = stat.generation;
  }
  a = other_answer();
  expect(!a.status && a.good && a.generation != last);
  if (!(w.can & PACKBUF_CAN_NEWEST)) item.generation = a.generation > last ? a.generation : last;
  expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect(loop_whole(&item, item.lease.data));
  expect_number(item.stat.generation, a.generation > last ? a.generation : last);
  expect(item.stat.head_checksum == PUTS - 1 || item.stat.head_checksum == 100000 + PUTS - 1);
  packbuf_lease_release(&item.lease);
}
