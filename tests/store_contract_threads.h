/* Cases C59 to C66 of store_contract.c: deadlines, the asynchronous form, threads, fork, memory that runs out.
 * Test-only. */

/* ---- C59 to C61: deadlines ---- */

static void c59_past(void) {
  static const char *keys[] = {"c59/put", "c59", "c59", "c59"};
  (void)put(w.a, "c59", 1000, 59);
  for (int op = PACKBUF_PUT; op <= PACKBUF_REMOVE; op++) {
    const uint64_t start = packbuf_now();
    packbuf_item item = item_of(keys[op - 1]);
    packbuf_status status;
    item.from = w.source;
    item.size = 1000;
    if (op == PACKBUF_REMOVE) item.flags = remove_flags();
    status = run(w.a, (packbuf_operation)op, &item, 1, 1);
    expect(status == PACKBUF_OK || status == PACKBUF_TIMEOUT);
    if (milliseconds_since(start) >= 100) tap_note("%s: took %u ms", w.name, (unsigned)milliseconds_since(start));
    expect(milliseconds_since(start) < 1000);
    if (op == PACKBUF_PUT && status) expect_absent(w.a, keys[0]);
    packbuf_lease_release(&item.lease);
  }
  {
    packbuf_completion completion;
    packbuf_slice slice;
    packbuf_listed listed;
    uint64_t count = 0, cursor = 0;
    packbuf_status status = packbuf_poll(w.a, &completion, 1, &count, 1, NULL);
    expect(status == PACKBUF_NOT_FOUND || status == PACKBUF_TIMEOUT);
    status = reserve_one(w.a, 100, 1, &slice);
    expect(status == PACKBUF_OK || status == PACKBUF_TIMEOUT || status == PACKBUF_FULL);
    packbuf_slice_release(&slice);
    if (w.can & PACKBUF_CAN_LIST) {
      status = packbuf_store_list(w.a, NULL, &cursor, &listed, 1, &count, 1, NULL);
      expect(status == PACKBUF_OK || status == PACKBUF_TIMEOUT);
    }
    status = packbuf_store_collect(w.a, 1, NULL, NULL);
    expect(status == PACKBUF_OK || status == PACKBUF_TIMEOUT);
  }
}

/* The process that serves the store, which the script that started it wrote down; 0. */
static pid_t server_pid(void) {
  const char *name = getenv("STORE_SERVER_PID_FILE");
  FILE *file = name ? fopen(name, "r") : NULL;
  long pid = 0;
  if (file && fscanf(file, "%ld", &pid) != 1) pid = 0;
  if (file) (void)fclose(file);
  return (pid_t)pid;
}

/* Makes the other side answer late, for the next items of handle a, and at once again. */
static void other_side_stops(int stops) {
  const char *command = getenv(stops ? "STORE_STOP" : "STORE_CONTINUE");
  packbuf_fault faults[8];
  if (w.can & PACKBUF_CAN_INJECT) {
    memset(faults, 0, sizeof faults);
    for (unsigned i = 0; i < 8; i++) {
      faults[i].at = i;
      faults[i].kind = PACKBUF_FAULT_DELAY;
      faults[i].argument = (uint64_t)3000000000u;
    }
    expect_status(packbuf_store_inject(w.a, faults, stops ? 8 : 0, NULL), PACKBUF_OK);
    return;
  }
  if (command) expect(system(command) == 0);
  else if (server_pid() > 0) expect(kill(server_pid(), stops ? SIGSTOP : SIGCONT) == 0);
  sleep_ms(50); /* until it has */
}

/* In shm nothing waits for a process that is stopped, which is in the middle of puts here. */
static void other_stops_in_a_loop(void) {
  order o = order_of(DO_PUT_LOOP, "c60/loop");
  o.count = 1000000;
  other_begin(o);
  sleep_ms(20);
  (void)kill(other.pid, SIGSTOP);
}

static void c60_other_side_stopped(void) {
  static const char *keys[] = {"c60/put", "c60", "c60", "c60"};
  const int waits = strcmp(w.transport, "shm") != 0;
  packbuf_status statuses[4];
  (void)put(w.a, "c60", 1000, 60);
  if (waits) other_side_stops(1);
  else other_stops_in_a_loop();
  for (int op = PACKBUF_PUT; op <= PACKBUF_REMOVE; op++) {
    const uint64_t start = packbuf_now();
    packbuf_item item = item_of(keys[op - 1]);
    item.from = w.source;
    item.size = 1000;
    if (op == PACKBUF_REMOVE) item.flags = remove_flags();
    statuses[op - 1] = run(w.a, (packbuf_operation)op, &item, 1, packbuf_deadline_in(200));
    packbuf_lease_release(&item.lease);
    expect(milliseconds_since(start) < 1000);
    if (!waits) expect_status(statuses[op - 1], PACKBUF_OK);
    else if (op == PACKBUF_PUT && !w.local)
      expect_status(statuses[0] == PACKBUF_DISCONNECTED ? PACKBUF_TIMEOUT : statuses[0], PACKBUF_TIMEOUT);
    else expect_status(statuses[op - 1], PACKBUF_TIMEOUT);
  }
  if (waits) other_side_stops(0);
  else {
    expect_status(put_by(w.a, "c60/loop", 100, 61, in_time(), NULL), PACKBUF_OK);
    other_kill();
  }
  if (!w.local) sleep_ms(300);
}

static void c61_goes_on(void) {
  const int waits = strcmp(w.transport, "shm") != 0;
  packbuf_status status;
  if (waits) other_side_stops(1);
  else other_stops_in_a_loop();
  status = put_by(w.a, "c61/put", 1000, 61, packbuf_deadline_in(200), NULL);
  if (waits) other_side_stops(0);
  else (void)kill(other.pid, SIGCONT);
  if (!w.local) sleep_ms(300);
  (void)put(w.a, "c61", 5000, 61);
  expect_get(w.a, "c61", 0, 5000, 61);
  if (waits) expect(status == PACKBUF_TIMEOUT || (status == PACKBUF_DISCONNECTED && !w.local));
  else expect_status(status, PACKBUF_OK);
  if (status == PACKBUF_TIMEOUT) expect_absent(w.b, "c61/put");
  if (!waits) other_kill();
}

/* ---- C62 and C63: without waiting ---- */

static int readable(int fd) {
  struct pollfd one;
  one.fd = fd;
  one.events = POLLIN;
  one.revents = 0;
  return poll(&one, 1, 0) == 1;
}

/* Waits until as many puts of a handle have ended. */
static void wait_for_puts(packbuf_store *store, uint64_t puts) {
  const uint64_t start = packbuf_now();
  while (counters_of(store).puts < puts && milliseconds_since(start) < 20000) sleep_ms(5);
  sleep_ms(20);
}

static void c62_submit(void) {
  enum { BATCHES = 4, N = 64 };
  packbuf_item *items = (packbuf_item *)calloc(BATCHES * N, sizeof *items);
  char(*keys)[16] = (char(*)[16])calloc(BATCHES * N, sizeof *keys);
  unsigned char *seen = (unsigned char *)calloc(BATCHES * N, 1);
  packbuf_completion some[10];
  uint64_t tickets[BATCHES], left[BATCHES], count = 0, taken = 0;
  const uint64_t puts = counters_of(w.a).puts;
  int fd = -1;
  expect_status(packbuf_poll(w.a, some, 10, &count, PACKBUF_NO_WAIT, NULL), PACKBUF_NOT_FOUND);
  expect_status(packbuf_store_fd(w.a, &fd, NULL), PACKBUF_OK);
  expect(!readable(fd));
  for (unsigned i = 0; i < BATCHES * N; i++) {
    snprintf(keys[i], sizeof keys[i], "c62/%u", i);
    remember_key(keys[i]);
    items[i] = item_of(i % N == 13 ? "bad key" : keys[i]);
    items[i].size = i;
    items[i].from = take_memory(i + 1);
    fill_bytes((void *)(uintptr_t)items[i].from, i, 6200 + i);
    items[i].status = UNSET;
  }
  for (unsigned k = 0; k < BATCHES; k++) {
    left[k] = N;
    expect_status(packbuf_submit(w.a, PACKBUF_PUT, items + k * N, N, in_time(), &left[k], &tickets[k], NULL),
                  PACKBUF_OK);
    expect(tickets[k] != 0 && (k == 0 || tickets[k] != tickets[k - 1]));
  }
  wait_for_puts(w.a, puts + BATCHES * (N - 1));
  while (taken < BATCHES * N) {
    expect(readable(fd));
    if (!expect_status(packbuf_poll(w.a, some, 10, &count, in_time(), NULL), PACKBUF_OK)) break;
    expect(count == 10 || taken + count == BATCHES * N);
    for (uint64_t i = 0; i < count; i++) {
      const unsigned k = (unsigned)((uint64_t *)some[i].context - left);
      const uint64_t at = k * N + some[i].index;
      expect(some[i].ticket == tickets[k] && some[i].item == &items[at] && !seen[at]);
      expect_number(some[i].left, --left[k]);
      expect_status(items[at].status, at % N == 13 ? PACKBUF_INVALID_ARGUMENT : PACKBUF_OK);
      seen[at] = 1;
    }
    taken += count;
  }
  expect(!readable(fd));
  expect_status(packbuf_poll(w.a, some, 10, &count, PACKBUF_NO_WAIT, NULL), PACKBUF_NOT_FOUND);
  for (unsigned i = 0; i < BATCHES * N; i += 5)
    if (i % N != 13) expect_get(w.b, keys[i], 0, i, 6200 + i);
  expect_status(packbuf_submit(w.a, PACKBUF_GET, items, 0, in_time(), NULL, &tickets[0], NULL),
                PACKBUF_INVALID_ARGUMENT);
  free(items);
  free(keys);
  free(seen);
}

/* Takes all completions of a handle, `wanted` of them; counts for each item how often it came. */
static void take_completions(packbuf_store *store, packbuf_item *items, unsigned wanted, unsigned *came) {
  uint64_t count = 0;
  for (unsigned taken = 0; taken < wanted; taken += (unsigned)count) {
    packbuf_completion some[8];
    if (!expect_status(packbuf_poll(store, some, 8, &count, in_time(), NULL), PACKBUF_OK)) return;
    for (uint64_t i = 0; i < count; i++) came[some[i].item - items]++;
  }
}

/* An item of a batch that has begun, of any operation: the one before it takes its time. */
static void c63_cancel_begun(void) {
  if (!(w.can & PACKBUF_CAN_INJECT)) return;
  for (int op = PACKBUF_PUT; op <= PACKBUF_REMOVE; op++) {
    const packbuf_fault late = fault_of(0, PACKBUF_FAULT_DELAY, 200000000u);
    packbuf_completion completion;
    packbuf_item items[2];
    unsigned came[2] = {0, 0};
    uint64_t ticket = 0, count = 0;
    (void)put(w.b, "c63/a", 10, 1);
    (void)put(w.b, "c63/b", 20, 2);
    for (unsigned i = 0; i < 2; i++) {
      items[i] = item_of(i ? "c63/b" : "c63/a");
      items[i].from = w.source;
    }
    plan(w.a, late);
    expect_status(packbuf_submit(w.a, (packbuf_operation)op, items, 2, in_time(), NULL, &ticket, NULL), PACKBUF_OK);
    sleep_ms(60);
    expect_status(packbuf_cancel(w.a, ticket, 1, NULL), PACKBUF_OK);
    expect_status(packbuf_poll(w.a, &completion, 1, &count, in_time(), NULL), PACKBUF_OK);
    expect_status(packbuf_cancel(w.a, ticket, completion.index, NULL), PACKBUF_NOT_FOUND); /* was polled */
    take_completions(w.a, items, 1, came);
    plan_nothing(w.a);
    expect_status(items[0].status, PACKBUF_OK);
    expect_status(items[1].status, PACKBUF_CANCELLED);
    expect(items[1].lease.data == NULL);
    packbuf_lease_release(&items[0].lease);
    expect_get(w.b, "c63/b", 0, 20, 2);
  }
}

/* The worker waits for room with a first batch while those behind it are cancelled. */
static void c63_cancel(void) {
  enum { N = 7 };
  packbuf_item items[N];
  char keys[N][16];
  unsigned came[N] = {0};
  uint64_t tickets[3], puts;
  c63_cancel_begun();
  (void)fill_store("c63", 0);
  puts = counters_of(w.a).puts;
  for (unsigned i = 0; i < N; i++) {
    snprintf(keys[i], sizeof keys[i], "c63x/%u", i);
    remember_key(keys[i]);
    items[i] = item_of(keys[i]);
    items[i].from = w.source;
    items[i].size = i == 1 ? MIB : 0;
    items[i].status = UNSET;
  }
  expect_status(packbuf_submit(w.a, PACKBUF_PUT, items, 2, in_time(), NULL, &tickets[0], NULL), PACKBUF_OK);
  expect_status(packbuf_submit(w.a, PACKBUF_PUT, items + 2, 2, in_time(), NULL, &tickets[1], NULL), PACKBUF_OK);
  expect_status(packbuf_submit(w.a, PACKBUF_PUT, items + 4, 3, in_time(), NULL, &tickets[2], NULL), PACKBUF_OK);
  wait_for_puts(w.a, puts + 1);
  expect_status(packbuf_cancel(w.a, tickets[0], 0, NULL), PACKBUF_OK); /* has ended, was not polled */
  expect_status(packbuf_cancel(w.a, tickets[1], 0, NULL), PACKBUF_OK);
  expect_status(packbuf_cancel(w.a, tickets[2], PACKBUF_NOWHERE, NULL), PACKBUF_OK);
  expect_status(packbuf_cancel(w.a, tickets[2] + 1000, 0, NULL), PACKBUF_NOT_FOUND);
  expect_status(packbuf_cancel(w.a, tickets[1], 2, NULL), PACKBUF_NOT_FOUND);
  expect_status(remove_by(w.b, "c63/3", 0, in_time()), PACKBUF_OK);
  take_completions(w.a, items, N, came);
  expect_status(packbuf_cancel(w.a, tickets[0], 0, NULL), PACKBUF_NOT_FOUND); /* was polled */
  for (unsigned i = 0; i < N; i++) {
    const int cancelled = i == 2 || i > 3;
    expect_number(came[i], 1);
    expect_status(items[i].status, cancelled ? PACKBUF_CANCELLED : PACKBUF_OK);
    expect_status(stat_of(w.b, keys[i], 0, NULL), cancelled ? PACKBUF_NOT_FOUND : PACKBUF_OK);
  }
}

/* ---- C64: threads ---- */

typedef struct thread_of_many {
  pthread_t thread;
  unsigned index, wrong;
  uint8_t *memory;
} thread_of_many;

/* Where removals wait for an engine's leases, fewer. */
static void *many_threads(void *context) {
  enum { KEYS = 64 };
  const unsigned operations = w.can & PACKBUF_CAN_REMOVE_NOW ? 2000 : 250;
  thread_of_many *me = (thread_of_many *)context;
  chance c = {6400 + me->index};
  packbuf_error error;
  for (unsigned i = 0; i < operations; i++) {
    const uint64_t what = chance_below(&c, 8);
    char key[16];
    packbuf_item item = item_of(key);
    packbuf_status status;
    snprintf(key, sizeof key, "c64/%u", (unsigned)chance_below(&c, KEYS));
    if (what < 3) {
      packbuf_stat stat;
      me->wrong += loop_put(w.a, key, (uint64_t)me->index << 20 | i, me->memory, &stat) != PACKBUF_OK;
      continue;
    }
    if (what == 3) {
      item.into = me->memory;
      item.capacity = 20001;
    }
    status = run_with(w.a,
                      what == 7   ? PACKBUF_REMOVE
                      : what == 6 ? PACKBUF_STAT
                                  : PACKBUF_GET,
                      &item, 1, in_time(), &error);
    me->wrong += status != PACKBUF_OK && status != PACKBUF_NOT_FOUND;
    if (!status && what < 6) me->wrong += !loop_whole(&item, item.into ? item.into : item.lease.data);
    packbuf_lease_release(&item.lease);
  }
  return NULL;
}

static void c64_threads(void) {
  enum { THREADS = 8 };
  thread_of_many threads[THREADS];
  for (unsigned i = 0; i < 64; i++) {
    char key[16];
    snprintf(key, sizeof key, "c64/%u", i);
    remember_key(key);
  }
  for (unsigned i = 0; i < THREADS; i++) {
    threads[i].index = i;
    threads[i].wrong = 0;
    threads[i].memory = take_memory(20001);
    expect(pthread_create(&threads[i].thread, NULL, many_threads, &threads[i]) == 0);
  }
  for (unsigned i = 0; i < THREADS; i++) {
    (void)pthread_join(threads[i].thread, NULL);
    expect_number(threads[i].wrong, 0);
  }
}

/* ---- C65: fork ---- */

/* What a child finds that was forked while the handle was open: the number of the call that was not DISCONNECTED. */
static int forked_calls(packbuf_lease *lease, packbuf_slice *slice, uint64_t ticket) {
  packbuf_item item = item_of("c65");
  packbuf_completion completion;
  packbuf_counters counters;
  packbuf_store_info info;
  packbuf_listed listed;
  uint64_t size = 100, count = 0, cursor = 0;
  packbuf_slice more;
  int fd = -1, at = 0;
  item.size = 10;
  item.from = w.source;
#define GONE(call) \
  at++;            \
  if ((call) != PACKBUF_DISCONNECTED) return at
  for (int op = PACKBUF_PUT; op <= PACKBUF_REMOVE; op++) {
    GONE(call_batch(w.a, (packbuf_operation)op, &item, 1, in_time(), NULL));
    if (item.status != PACKBUF_DISCONNECTED) return 100 + op;
  }
  GONE(packbuf_store_describe(w.a, &info, in_time(), NULL));
  GONE(packbuf_register(w.a, w.source, 4096, NULL));
  GONE(packbuf_unregister(w.a, w.source, 4096, NULL));
  GONE(packbuf_reserve(w.a, 0, &size, 1, in_time(), &more, NULL));
  GONE(packbuf_submit(w.a, PACKBUF_GET, &item, 1, in_time(), NULL, &ticket, NULL));
  GONE(packbuf_poll(w.a, &completion, 1, &count, in_time(), NULL));
  GONE(packbuf_cancel(w.a, ticket, 0, NULL));
  GONE(packbuf_store_fd(w.a, &fd, NULL));
  GONE(packbuf_store_list(w.a, NULL, &cursor, &listed, 1, &count, in_time(), NULL));
  GONE(packbuf_store_collect(w.a, in_time(), NULL, NULL));
  GONE(packbuf_store_counters(w.a, &counters, NULL));
  GONE(packbuf_store_quota(w.a, 1, 100, NULL));
  GONE(packbuf_store_inject(w.a, NULL, 0, NULL));
#undef GONE
  if (!same_bytes(lease->data, lease->size, 65)) return 200;
  packbuf_lease_release(lease);
  packbuf_slice_release(slice);
  return packbuf_store_close(w.a, in_time(), NULL) == PACKBUF_OK ? 0 : 201;
}

static void c65_fork(void) {
  packbuf_lease lease;
  packbuf_slice slice;
  packbuf_item item = item_of("c65");
  uint64_t ticket = 0;
  unsigned came = 0;
  int status = -1;
  pid_t child;
  (void)put(w.a, "c65", 50000, 65);
  expect_status(lease_by(w.a, "c65", 0, &lease), PACKBUF_OK);
  expect_status(reserve_one(w.a, 1000, in_time(), &slice), PACKBUF_OK);
  expect_status(packbuf_submit(w.a, PACKBUF_STAT, &item, 1, in_time(), NULL, &ticket, NULL), PACKBUF_OK);
  fflush(stdout);
  child = fork();
  if (child == 0) {
    (void)alarm(20);
    _exit(forked_calls(&lease, &slice, ticket));
  }
  (void)waitpid(child, &status, 0);
  expect(WIFEXITED(status));
  expect_number(WEXITSTATUS(status), 0);
  take_completions(w.a, &item, 1, &came);
  expect_status(item.status, PACKBUF_OK);
  expect(same_bytes(lease.data, lease.size, 65));
  packbuf_lease_release(&lease);
  fill_bytes(slice.data, 1000, 66);
  expect_status(put_slice(w.a, "c65/slice", &slice, 1000), PACKBUF_OK);
  expect_get(w.a, "c65/slice", 0, 1000, 66);
  expect_get(w.b, "c65", 0, 50000, 65);
}

/* ---- C66: memory runs out ---- */

typedef struct short_heap {
  uint64_t calls, fails_at, out; /* blocks out; all atomic */
} short_heap;

static void *short_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  short_heap *heap = (short_heap *)context;
  void *result;
  (void)old_size;
  if (!new_size) {
    if (memory) (void)__atomic_fetch_sub(&heap->out, 1, __ATOMIC_SEQ_CST);
    free(memory);
    return NULL;
  }
  if (__atomic_fetch_add(&heap->calls, 1, __ATOMIC_SEQ_CST) == heap->fails_at) return NULL;
  result = realloc(memory, new_size);
  if (result && !memory) (void)__atomic_fetch_add(&heap->out, 1, __ATOMIC_SEQ_CST);
  return result;
}

static int ok_or_memory(packbuf_status status) { return status == PACKBUF_OK || status == PACKBUF_OUT_OF_MEMORY; }

/* Open, put, get, reserve, register, submit, poll, close; what fails for want of memory succeeds when it is repeated.
 */
static void with_short_heap(const packbuf_store_options *options, uint64_t round) {
  packbuf_store *store = NULL;
  packbuf_item item = item_of("c66"), again = item_of("c66");
  packbuf_slice slice;
  packbuf_status status = packbuf_store_open(w.uri, options, &store, &w.error);
  packbuf_completion completion;
  uint8_t *own = w.memory + 4096;
  uint64_t ticket = 0, count = 0;
  expect_status(ok_or_memory(status) ? PACKBUF_OK : status, PACKBUF_OK);
  if (status) expect(store == NULL);
  if (status) status = packbuf_store_open(w.uri, options, &store, &w.error);
  if (!expect_status(status, PACKBUF_OK)) return;
#define REPEATED(call)                                                   \
  status = (call);                                                       \
  expect_status(ok_or_memory(status) ? PACKBUF_OK : status, PACKBUF_OK); \
  if (status) status = (call);                                           \
  expect_status(status, PACKBUF_OK)
  REPEATED(packbuf_register(store, own, 100000, NULL));
  fill_bytes(own, 50000, round);
  item.from = own;
  item.size = 50000;
  REPEATED(run(store, PACKBUF_PUT, &item, 1, in_time()));
  again.into = own + 50000;
  again.capacity = 50000;
  REPEATED(run(store, PACKBUF_GET, &again, 1, in_time()));
  expect(same_bytes(again.into, 50000, round));
  again.into = NULL;
  again.capacity = 0;
  REPEATED(run(store, PACKBUF_GET, &again, 1, in_time()));
  expect(same_bytes(again.lease.data, 50000, round));
  packbuf_lease_release(&again.lease);
  REPEATED(reserve_one(store, 5000, in_time(), &slice));
  fill_bytes(slice.data, 5000, round);
  REPEATED(put_slice(store, "c66/slice", &slice, 5000));
  REPEATED(packbuf_submit(store, PACKBUF_STAT, &again, 1, in_time(), NULL, &ticket, NULL));
  REPEATED(packbuf_poll(store, &completion, 1, &count, in_time(), NULL));
  expect_status(ok_or_memory(again.status) ? PACKBUF_OK : again.status, PACKBUF_OK);
  item.flags = remove_flags();
  REPEATED(run(store, PACKBUF_REMOVE, &item, 1, in_time()));
  item = item_of("c66/slice");
  item.flags = remove_flags();
  REPEATED(run(store, PACKBUF_REMOVE, &item, 1, in_time()));
  REPEATED(packbuf_unregister(store, own, 100000, NULL));
#undef REPEATED
  expect_status(packbuf_store_close(store, in_time(), NULL), PACKBUF_OK);
}

static void c66_out_of_memory(void) {
  packbuf_store_options options = contract_options();
  packbuf_allocator allocator;
  short_heap heap;
  uint64_t round = 0;
  options.size = MIB;
  options.pool_size = MIB;
  options.allocator = &allocator;
  allocator.resize = short_resize;
  allocator.context = &heap;
  do {
    memset(&heap, 0, sizeof heap);
    heap.fails_at = round;
    with_short_heap(&options, round);
    expect_number(__atomic_load_n(&heap.out, __ATOMIC_SEQ_CST), 0);
  } while (__atomic_load_n(&heap.calls, __ATOMIC_SEQ_CST) > round++ && round < 500 && !w.bad);
  expect(round > 3 && round < 500);
}
