/* Cases C67 to C78 of store_contract.c: faults that are planned, processes that are killed or stopped, servers that go,
 * secrets, and URIs that are no good. Test-only. */

/* ---- C67 to C71: planned faults ---- */

/* Item i of N fails, and no other; again without the fault all is done. */
static void c67_fail(void) {
  enum { N = 8 };
  packbuf_item items[N];
  char keys[N][16];
  for (unsigned i = 0; i < N; i++) snprintf(keys[i], sizeof keys[i], "c67/%u", i);
  for (int op = PACKBUF_PUT; op <= PACKBUF_REMOVE; op++)
    for (unsigned at = 0; at < N; at++) {
      packbuf_status first;
      if (op == PACKBUF_REMOVE)
        for (unsigned i = 0; i < N; i++) (void)put(w.b, keys[i], 1000 + i, i);
      for (unsigned i = 0; i < N; i++) {
        items[i] = item_of(keys[i]);
        items[i].from = w.source + i;
        items[i].size = 1000;
      }
      fill_bytes(w.source, 2000, 67);
      plan(w.a, fault_of(at, PACKBUF_FAULT_FAIL, PACKBUF_SYSTEM));
      first = run(w.a, (packbuf_operation)op, items, N, in_time());
      expect_status(first, PACKBUF_SYSTEM);
      expect_number(w.error.row, at);
      plan_nothing(w.a);
      for (unsigned i = 0; i < N; i++) {
        expect_status(items[i].status, i == at ? PACKBUF_SYSTEM : PACKBUF_OK);
        packbuf_lease_release(&items[i].lease);
      }
      expect_status(run(w.a, (packbuf_operation)op, items + at, 1, in_time()), PACKBUF_OK);
      packbuf_lease_release(&items[at].lease);
    }
}

static void c68_short_get(void) {
  static const uint64_t lengths[] = {0, 1, 4999};
  (void)put(w.a, "c68", 5000, 68);
  for (unsigned i = 0; i < 6; i++) {
    packbuf_item item = item_of("c68");
    const uint64_t before = counters_of(w.a).short_reads;
    if (i % 2) {
      item.into = w.target;
      item.capacity = 5000;
    }
    plan(w.a, fault_of(0, PACKBUF_FAULT_SHORTEN, lengths[i / 2]));
    expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_SHORT_READ);
    plan_nothing(w.a);
    expect(item.lease.data == NULL && item.lease.size == 0);
    expect_number(counters_of(w.a).short_reads, before + 1);
    expect_number(counters_of(w.a).leases, 0);
    expect_get(w.a, "c68", 0, 5000, 68);
  }
}

static void c69_writer_dies(void) {
  static const uint64_t lengths[] = {0, 1, 4999};
  const uint64_t generation = put(w.a, "c69", 100, 69);
  const uint64_t used = used_more();
  uint64_t recovered;
  for (unsigned i = 0; i < 3; i++) {
    packbuf_item item = item_of("c69");
    packbuf_status status;
    item.from = w.source;
    item.size = 5000;
    recovered = counters_of(w.a).recovered;
    plan(w.a, fault_of(0, PACKBUF_FAULT_SHORTEN, lengths[i]));
    status = run(w.a, PACKBUF_PUT, &item, 1, in_time());
    plan_nothing(w.a);
    expect(status != PACKBUF_OK);
    expect_get(w.b, "c69", 0, 100, 69);
    expect_get(w.b, "c69", generation, 100, 69);
    expect_status(packbuf_store_collect(w.a, in_time(), NULL, NULL), PACKBUF_OK);
    expect_used(used);
    expect(counters_of(w.a).recovered > recovered);
  }
  {
    packbuf_slice slice;
    expect_status(reserve_one(w.a, 5000, in_time(), &slice), PACKBUF_OK);
    fill_bytes(slice.data, 5000, 70);
    plan(w.a, fault_of(0, PACKBUF_FAULT_SHORTEN, 1));
    expect(put_slice(w.a, "c69", &slice, 5000) != PACKBUF_OK);
    plan_nothing(w.a);
    expect(same_bytes(slice.data, 5000, 70));
    packbuf_slice_release(&slice);
    expect_get(w.b, "c69", 0, 100, 69);
  }
}

/* A packed buffer of one field of 200,000 int64; its size. */
static uint64_t pack_numbers(uint8_t *to, uint64_t capacity) {
  enum { N = 200000 };
  const uint64_t shape[1] = {N};
  int64_t *numbers = (int64_t *)malloc(N * sizeof *numbers);
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_tensor tensor;
  uint64_t size = 0;
  for (unsigned i = 0; i < N; i++) numbers[i] = (int64_t)mixed(i);
  packbuf_arena_init(&arena, NULL);
  memset(&tensor, 0, sizeof tensor);
  tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  tensor.rank = 1;
  tensor.shape = shape;
  tensor.data = numbers;
  expect_status(packbuf_batch_init(&batch, N, &arena, NULL, NULL), PACKBUF_OK);
  expect_status(packbuf_add_tensor(&batch, "x", &tensor, NULL, NULL), PACKBUF_OK);
  expect_status(packbuf_write(&batch, to, capacity, &size, NULL), PACKBUF_OK);
  packbuf_arena_free(&arena);
  free(numbers);
  return size;
}

/* What opening and verifying say of the batch of C70, of which byte `at` is flipped on its way. */
static void expect_flipped(uint64_t at, int into, packbuf_status opens, packbuf_status verifies) {
  packbuf_item item = item_of("c70");
  packbuf_view view;
  packbuf_status status;
  const void *data;
  if (into) {
    item.into = w.target;
    item.capacity = ZONE;
  }
  plan(w.a, fault_of(0, PACKBUF_FAULT_CORRUPT, at));
  expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  plan_nothing(w.a);
  data = into ? (const void *)w.target : item.lease.data;
  status = packbuf_open(&view, data, item.got, 0, NULL, NULL);
  expect_status(status, opens);
  if (!status) expect_status(packbuf_verify(&view, PACKBUF_LEVEL_FULL, NULL), verifies);
  packbuf_lease_release(&item.lease);
}

/* Head and index, and one chunk of the data, of which a byte is flipped on its way or not. */
static void expect_chunk(uint64_t front, int flips) {
  enum { CHUNK = 65536 };
  const packbuf_range ranges[2] = {range_of(0, front), range_of(front + 3 * CHUNK, CHUNK)};
  packbuf_item item = item_of("c70");
  packbuf_fetched fetched;
  packbuf_view view;
  uint64_t chunks = 0;
  item.ranges = ranges;
  item.range_count = 2;
  if (flips) plan(w.a, fault_of(0, PACKBUF_FAULT_CORRUPT, front + 100));
  expect_status(run(w.a, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  plan_nothing(w.a);
  fetched.offset = ranges[1].offset;
  fetched.length = CHUNK;
  fetched.bytes = (const uint8_t *)item.lease.data + front;
  expect_status(packbuf_open_partial(&view, item.lease.data, front, &fetched, 1, 0, NULL, NULL), PACKBUF_OK);
  expect_status(packbuf_verify(&view, PACKBUF_LEVEL_INDEX, NULL), PACKBUF_OK);
  expect_status(packbuf_verify_fetched(&view, &chunks, NULL), flips ? PACKBUF_DATA_CHECKSUM : PACKBUF_OK);
  if (!flips) expect_number(chunks, 1);
  packbuf_lease_release(&item.lease);
}

static void c70_flipped(void) {
  const uint64_t size = pack_numbers(w.source, ZONE);
  packbuf_item item = item_of("c70");
  packbuf_view view;
  expect(size > 1000000);
  expect_status(packbuf_open(&view, w.source, size, 0, NULL, NULL), PACKBUF_OK);
  item.from = w.source;
  item.size = size;
  expect_status(run(w.a, PACKBUF_PUT, &item, 1, in_time()), PACKBUF_OK);
  for (int into = 0; into < 2; into++) {
    expect_flipped(131, into, PACKBUF_HEAD_CHECKSUM, PACKBUF_OK);
    expect_flipped(size - 5000, into, PACKBUF_OK, PACKBUF_DATA_CHECKSUM);
    expect_flipped(size / 2, into, PACKBUF_OK, PACKBUF_DATA_CHECKSUM);
  }
  expect_chunk(view.head_length + view.index_length, 1);
  expect_chunk(view.head_length + view.index_length, 0);
  item = item_of("c70"); /* the object itself stayed right */
  expect_status(run(w.b, PACKBUF_GET, &item, 1, in_time()), PACKBUF_OK);
  expect(memcmp(item.lease.data, w.source, (size_t)size) == 0);
  packbuf_lease_release(&item.lease);
}

static void c71_out_of_order(void) {
  many *m = many_new("c71");
  packbuf_fault *faults = (packbuf_fault *)calloc(MANY, sizeof *faults);
  for (unsigned i = 0; i < MANY / 2; i++)
    faults[i] =
        i % 2 ? fault_of(i * 2, PACKBUF_FAULT_REORDER, 1 + i * 13 % 300) : fault_of(i * 2, PACKBUF_FAULT_DELAY, 100000);
  expect_status(packbuf_store_inject(w.a, faults, MANY / 2, NULL), PACKBUF_OK);
  many_put(m);
  for (unsigned i = 0; i < MANY; i++) expect(m->generations[i] != 0);
  for (int into = 0; into < 2; into++) {
    expect_status(packbuf_store_inject(w.a, faults, MANY / 2, NULL), PACKBUF_OK);
    many_ask(m, 0, into);
    for (unsigned i = 0; i < MANY; i++) m->items[i].generation = m->generations[i];
    expect_status(run(w.a, PACKBUF_GET, m->items, MANY, in_time()), PACKBUF_OK);
    for (unsigned i = 0; i < MANY; i++) {
      expect(m->items[i].got == m->sizes[i] &&
             same_bytes(into ? m->into[i] : m->items[i].lease.data, m->sizes[i], 1000 + i));
      packbuf_lease_release(&m->items[i].lease);
    }
  }
  plan_nothing(w.a);
  free(faults);
  free(m);
}

/* ---- C72 to C75: the killed and the stopped ---- */

static void expect_room_back(uint64_t bytes) {
  const uint64_t start = packbuf_now();
  do {
    expect_status(packbuf_store_collect(w.a, in_time(), NULL, NULL), PACKBUF_OK);
    if (!knows_used() || used_more() == bytes) break;
    sleep_ms(10);
  } while (milliseconds_since(start) < 2000);
  expect_used(bytes);
}

static void c72_writer_killed(void) {
  order o = order_of(DO_RESERVE, "");
  const uint64_t generation = put(w.a, "c72", 100000, 72);
  const uint64_t used = used_more();
  chance c = {72};
  remember_key("c72/loop");
  o.size = 4 * MIB;
  o.seed = 73;
  expect_status(other_does(o).status, PACKBUF_OK); /* half of it is filled */
  other_kill();
  expect_room_back(used);
  expect_get(w.a, "c72", generation, 100000, 72);
  for (unsigned round = 0; round < 5; round++) {
    packbuf_item item = item_of("c72/loop");
    packbuf_status status;
    struct timespec some = {0, 0};
    other_start();
    o = order_of(round % 2 ? DO_PUT : DO_PUT_LOOP, "c72/loop");
    o.size = 20 * MIB;
    o.seed = 74;
    o.count = 1000000;
    other_begin(o);
    some.tv_nsec = (long)chance_below(&c, 40000000);
    (void)nanosleep(&some, NULL);
    other_kill();
    status = run(w.a, PACKBUF_GET, &item, 1, in_time());
    expect(status == PACKBUF_OK || status == PACKBUF_NOT_FOUND);
    if (!status)
      expect(item.got == 20 * MIB ? same_bytes(item.lease.data, item.got, 74) : loop_whole(&item, item.lease.data));
    packbuf_lease_release(&item.lease);
    status = remove_by(w.a, "c72/loop", 0, in_time());
    expect(status == PACKBUF_OK || status == PACKBUF_NOT_FOUND);
    expect_room_back(used);
  }
}

static void c73_reader_killed(void) {
  answer a;
  (void)put(w.a, "c73", 300000, 73);
  (void)put(w.a, "c73/old", 300000, 74);
  a = other_leases_it("c73", 0, 300000, 73, 0);
  expect(!a.status && a.good);
  a = other_leases_it("c73/old", 0, 300000, 74, 1);
  expect(!a.status && a.good);
  (void)put(w.a, "c73/old", 4096, 75);
  (void)remove_by(w.a, "c73", 0, at_once());
  other_kill();
  expect_room_back(4096);
  expect_absent(w.a, "c73");
}

/* A reader that goes on late has right bytes, or an error. */
static void c74_reader_stopped(void) {
  const int in_place = (w.can & PACKBUF_CAN_IN_PLACE) != 0;
  order o = order_of(DO_GET_LOOP, "c74");
  unsigned fitted;
  answer a;
  (void)put(w.a, "c74", 16 * MIB, 74);
  if (in_place) {
    a = other_leases_it("c74", 0, 16 * MIB, 74, 0);
    expect(!a.status && a.good);
  } else {
    o.size = 16 * MIB;
    o.seed = 74;
    o.count = 10000;
    other_begin(o);
    sleep_ms(53);
  }
  if (other.pid) expect(kill(other.pid, SIGSTOP) == 0);
  expect_status(remove_by(w.a, "c74", 0, packbuf_deadline_in(100)), in_place ? PACKBUF_LEASED : PACKBUF_OK);
  if (!in_place) sleep_ms(1500); /* longer than the server's lease_ms, which the script sets */
  fitted = fill_store("c74x", 0);
  expect(in_place ? fitted >= 32 && fitted <= 48 : fitted >= 56);
  if (other.pid) expect(kill(other.pid, SIGCONT) == 0);
  if (!in_place) {
    a = other_answer();
    expect(a.good);
    return;
  }
  expect(other_still_sees(16 * MIB, 74, 0));
  if (other.pid) other_kill();
  else other_releases(0);
  expect_status(put_mib(w.a, "c74/more", in_time()), PACKBUF_OK);
}

static void *restart_thread(void *command) {
  static int failed;
  failed = system((const char *)command) != 0;
  return failed ? &failed : NULL;
}

/* 1: right bytes of the put before; 0: the server was away, or is a new one. */
static int c75_got(uint64_t seed, unsigned *failed) {
  packbuf_item item = item_of("c75");
  const packbuf_status status = run(w.a, PACKBUF_GET, &item, 1, packbuf_deadline_in(5000));
  expect(status == PACKBUF_OK || status == PACKBUF_DISCONNECTED || status == PACKBUF_TIMEOUT ||
         status == PACKBUF_NOT_FOUND);
  if (!status) expect(same_bytes(item.lease.data, item.lease.size, seed));
  packbuf_lease_release(&item.lease);
  *failed += status != PACKBUF_OK;
  return !status;
}

/* A server that is killed and started again on the same port, or the engine's master; in shm: all clients. */
static void c75_server_restarts(void) {
  const char *restart = getenv("STORE_RESTART");
  packbuf_status status = PACKBUF_OK;
  unsigned good = 0, failed = 0;
  pthread_t thread;
  void *result = NULL;
  if (strcmp(w.transport, "shm") == 0) {
    order o = order_of(DO_PUT_LOOP, "c75/loop");
    const uint64_t generation = put(w.a, "c75", 70000, 75);
    o.count = 1000000;
    other_begin(o);
    sleep_ms(30);
    other_kill();
    close_handles();
    if (!open_handles()) return;
    w.registrations[0] = counters_of(w.a).registrations;
    w.registrations[1] = counters_of(w.b).registrations;
    expect_get(w.b, "c75", generation, 70000, 75);
    return;
  }
  if (!expect(restart != NULL)) return;
  w.registers = 1;
  expect(pthread_create(&thread, NULL, restart_thread, (void *)(uintptr_t)restart) == 0);
  for (unsigned i = 0; i < 400 && (good < 5 || failed < 1); i++) {
    status = put_by(w.a, "c75", 50000, i, packbuf_deadline_in(5000), NULL);
    expect(status == PACKBUF_OK || status == PACKBUF_DISCONNECTED || status == PACKBUF_TIMEOUT);
    if (status) failed++, good = 0;
    else good += (unsigned)c75_got(i, &failed);
    sleep_ms(status ? 50 : 5);
  }
  (void)pthread_join(thread, &result);
  expect(result == NULL);
  expect(good >= 5);
  if (strcmp(w.transport, "mooncake") != 0) expect(counters_of(w.a).reconnects >= 1);
  for (unsigned i = 0; i < 50 && stat_of(w.b, "c75", 0, NULL); i++) sleep_ms(50);
}

/* ---- C76 to C78: opening ---- */

/* Opens with these options and closes again. */
static packbuf_status try_open(const char *uri, packbuf_store_options *options) {
  packbuf_store *store = NULL;
  packbuf_error error;
  packbuf_status status;
  memset(&error, 0, sizeof error);
  status = packbuf_store_open(uri, options, &store, &error);
  expect((status == PACKBUF_OK) == (store != NULL));
  if (status) expect(error.code == status && error.message && error.message[0]);
  if (store) expect_status(packbuf_store_close(store, in_time(), NULL), PACKBUF_OK);
  return status;
}

/* The store's secret is that of the environment, which is taken away meanwhile. */
static void c76_secret(void) {
  packbuf_store_options options = contract_options();
  const char *secret = getenv("PACKBUF_SECRET");
  char *right;
  size_t size;
  if (!expect(secret != NULL && secret[0])) return;
  size = strlen(secret);
  right = (char *)malloc(size + 2);
  memcpy(right, secret, size + 1);
  (void)unsetenv("PACKBUF_SECRET");
  expect_status(try_open(w.uri, &options), PACKBUF_DENIED);
  options.secret = right;
  options.secret_size = size;
  expect_status(try_open(w.uri, &options), PACKBUF_OK);
  for (size_t i = 0; i<size; i += size> 1 ? size - 1 : 1) {
    right[i] ^= 1;
    expect_status(try_open(w.uri, &options), PACKBUF_DENIED);
    right[i] ^= 1;
  }
  options.secret_size = size - 1;
  expect_status(try_open(w.uri, &options), PACKBUF_DENIED);
  right[size] = 'x';
  options.secret_size = size + 1;
  expect_status(try_open(w.uri, &options), PACKBUF_DENIED);
  right[size] = 0;
  (void)setenv("PACKBUF_SECRET", right, 1);
  free(right);
}

static void c77_bad_uris(void) {
  static const char *bad[] = {"",
                              ":",
                              "local",
                              "nosuch:",
                              "local:?",
                              "local:?size",
                              "local:?size=",
                              "local:?size=x",
                              "local:?size=-1",
                              "local:?nosuch=1",
                              "local:?size=1m&size=2m",
                              "local:?size=1m&"};
  static char large[PACKBUF_MAX_URI + 10];
  packbuf_store_options options = contract_options();
  char uri[400];
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
    if (!expect_status(try_open(bad[i], &options), PACKBUF_INVALID_ARGUMENT)) tap_note("%s: \"%s\"", w.name, bad[i]);
  memset(large, 'x', sizeof large - 1);
  memcpy(large, "local:", 6);
  expect_status(try_open(large, &options), PACKBUF_INVALID_ARGUMENT);
  snprintf(uri, sizeof uri, "%s%cnosuch=1", w.uri, strchr(w.uri, '?') ? '&' : '?');
  expect_status(try_open(uri, &options), PACKBUF_INVALID_ARGUMENT);
  options.size = 0;
  expect_status(try_open("local:?size=1m&objects=10", &options), PACKBUF_OK);
  options.connect_ms = 500;
  if (strcmp(w.transport, "tcp") == 0) expect_status(try_open("tcp://127.0.0.1:1", &options), PACKBUF_DISCONNECTED);
  if (strcmp(w.transport, "verbs") == 0) {
    expect_status(try_open("verbs://127.0.0.1:1", &options), PACKBUF_DISCONNECTED);
    snprintf(uri, sizeof uri, "%.*s?device=nosuch0", (int)strcspn(w.uri, "?"), w.uri);
    expect_status(try_open(uri, &options), PACKBUF_UNAVAILABLE);
  }
  if (strcmp(w.transport, "shm") == 0) {
    options.must_exist = 1;
    expect_status(try_open("shm:packbuf-contract-that-is-not-there", &options), PACKBUF_NOT_FOUND);
    expect_status(try_open("shm:../x", &options), PACKBUF_INVALID_ARGUMENT);
  }
  if (strcmp(w.transport, "mooncake") == 0) {
    const char *library = getenv("MOONCAKE_STORE_LIBRARY");
    char *kept = library ? strdup(library) : NULL;
    (void)setenv("MOONCAKE_STORE_LIBRARY", "/nonexistent/libmooncake_store.so", 1);
    expect_status(try_open(w.uri, &options), PACKBUF_UNAVAILABLE);
    if (kept) (void)setenv("MOONCAKE_STORE_LIBRARY", kept, 1);
    else (void)unsetenv("MOONCAKE_STORE_LIBRARY");
    free(kept);
  }
}

static void c78_step_down(void) {
  const char *tcp_only = getenv("STORE_TCP_ONLY"); /* a verbs:// URI of a server that has no device */
  packbuf_store_options options = contract_options();
  packbuf_store *store = NULL;
  if (!expect(tcp_only != NULL)) return;
  expect_status(try_open(tcp_only, &options), PACKBUF_UNAVAILABLE);
  options.step_down = 1;
  if (!expect_status(packbuf_store_open(tcp_only, &options, &store, NULL), PACKBUF_OK)) return;
  expect(strcmp(info_of(store).transport, "tcp") == 0 && info_of(store).stepped_down);
  expect_status(packbuf_store_close(store, in_time(), NULL), PACKBUF_OK);
}
