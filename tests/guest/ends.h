/* tests/guest/ends.h: what the tests of failing networks share: a server with an observer beside it, a client at the
 * other end of a line that can be cut and made worse, objects that can be told from one another, calls of which the
 * line is cut in the middle, and the cases that all transports have. Between namespaces (tcp) one process is at both
 * ends: a socket belongs to the namespace that its thread was in when it was made.
 * Test-only; include once, first. May use: internals.h. */
#ifndef ENDS_H
#define ENDS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "../internals.h"
#include "../fence.h"
#include <sched.h>
#include <sys/wait.h>
#include "../items.h"

#define MIB ((uint64_t)1 << 20)
#define LARGE (24 * MIB) /* of one object: at the rate below it takes two seconds */
#define RATE "netem rate 100mbit limit 20000"
#define SECRET "hush"

enum { HERE, THERE };

static const char *served_at, *reached_at; /* URIs: of the server, and of the client there */
static int spaces[2] = {-1, -1};           /* -1: both ends are in this namespace */
static packbuf_store *served, *observer, *client; /* observer: here; client: there, one connection */
static packbuf_server *server;
static uint8_t *source, *target; /* LARGE bytes each */

/* ---- the network ---- */

/* From now on the calling thread is in that namespace. */
static void go(int where) {
  if (spaces[where] >= 0 && setns(spaces[where], CLONE_NEWNET) != 0) {
    printf("Bail out! setns: %s\n", strerror(errno));
    exit(1);
  }
}

/* Runs a command in a namespace; the calling thread is `here` before and after. */
static void command(int where, const char *text) {
  int status;
  go(where);
  status = system(text);
  go(HERE);
  expect(status == 0, "%s: %d", text, status);
}

static void line_cut(void) { command(THERE, "/usr/bin/ip link set veth1 down"); }

static void line_mended(void) {
  command(THERE, "/usr/bin/ip link set veth1 up");
  if (spaces[THERE] < 0) /* an RDMA device takes a moment */
    command(THERE, "until grep -q ACTIVE /sys/class/infiniband/rxe1/ports/1/state; do usleep 20000; done");
}

/* Both directions; NULL: as it was. */
static void weather(const char *how) {
  for (int where = HERE; where <= THERE; where++) {
    char text[200];
    snprintf(text, sizeof text, "/usr/bin/tc qdisc %s dev veth%d root %s", how ? "replace" : "del", where,
             how ? how : "");
    command(where, text);
  }
}

/* ---- the two ends ---- */

static uint64_t soon(void) { return packbuf_deadline_in(20000); }

static packbuf_store *open_at(int where) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_store *store = NULL;
  packbuf_error error;
  packbuf_status status;
  options.pool_size = 32 * MIB;
  options.connections = 1;
  options.secret = SECRET;
  options.secret_size = strlen(SECRET);
  go(where);
  status = packbuf_store_open(where == HERE ? served_at : reached_at, &options, &store, &error);
  go(HERE);
  expect(!status, "a client: %s %s", packbuf_status_name(status), status ? error.message : "");
  return store;
}

static packbuf_status serve(void) {
  packbuf_server_options options;
  memset(&options, 0, sizeof options);
  options.lease_ms = 1000;
  options.secret = SECRET;
  options.secret_size = strlen(SECRET);
  return packbuf_server_open(served, served_at, &options, &server, NULL);
}

static packbuf_counters counters_of(packbuf_store *store) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  (void)packbuf_store_counters(store, &counters, NULL);
  return counters;
}

/* What the server holds for those that put and get. */
static uint64_t held(void) {
  const packbuf_counters counters = counters_of(served);
  return counters.leases + counters.slices;
}

static uint64_t used(void) {
  static packbuf_store_info info;
  (void)packbuf_store_describe(served, &info, soon(), NULL);
  return info.used;
}

/* Waits until something is so, or the time that it may take at the very most is over. */
#define wait_until(condition, seconds, what)                                                        \
  do {                                                                                              \
    const uint64_t patience = packbuf_deadline_in((uint64_t)(seconds) * 1000);                       \
    while (!(condition) && packbuf_now() < patience) packbuf_i_sleep_until(packbuf_deadline_in(5));  \
    expect(condition, "%s, within %d s", what, (int)(seconds));                                     \
  } while (0)

/* ---- objects ---- */

static void fill(void *to, uint64_t size, uint64_t from) {
  for (uint64_t i = 0; i < size; i++) {
    if (i % 8 == 0) from = from * 6364136223846793005u + 1442695040888963407u;
    ((uint8_t *)to)[i] = (uint8_t)(from >> (8 * (i % 8)));
  }
}

static int is_filled(const void *data, uint64_t size, uint64_t from) {
  for (uint64_t i = 0; i < size; i++) {
    if (i % 8 == 0) from = from * 6364136223846793005u + 1442695040888963407u;
    if (((const uint8_t *)data)[i] != (uint8_t)(from >> (8 * (i % 8)))) return 0;
  }
  return 1;
}

/* A batch from where the client is: it may have to connect again. */
static packbuf_status run(packbuf_store *store, packbuf_operation operation, packbuf_item *items, uint64_t count,
                          uint64_t deadline) {
  packbuf_status status;
  go(store == observer ? HERE : THERE);
  status = operation == PACKBUF_PUT   ? packbuf_batch_put(store, items, count, deadline, NULL)
           : operation == PACKBUF_GET ? packbuf_batch_get(store, items, count, deadline, NULL)
                                      : packbuf_batch_remove(store, items, count, deadline, NULL);
  go(HERE);
  return status;
}

static packbuf_status put(packbuf_store *store, const char *key, uint64_t size, uint64_t seed_of) {
  packbuf_item item = item_of(key);
  fill(source, size, seed_of);
  item.from = source;
  item.size = size;
  return run(store, PACKBUF_PUT, &item, 1, soon());
}

/* The status of a get; PROTOCOL where it is OK and other bytes came than were put. */
static packbuf_status get(packbuf_store *store, const char *key, uint64_t size, uint64_t seed_of) {
  packbuf_item item = item_of(key);
  packbuf_status status = run(store, PACKBUF_GET, &item, 1, soon());
  if (!status && !(item.lease.size == size && is_filled(item.lease.data, size, seed_of))) status = PACKBUF_PROTOCOL;
  packbuf_lease_release(&item.lease);
  return status;
}

static packbuf_status take_away(packbuf_store *store, const char *key) {
  packbuf_item item = item_of(key);
  return run(store, PACKBUF_REMOVE, &item, 1, soon());
}

/* What a call says whose line was cut: its deadline passed, or it saw that the line is. */
static int is_cut(packbuf_status status) { return status == PACKBUF_TIMEOUT || status == PACKBUF_DISCONNECTED; }

#define is_ok(call) is_status(call, PACKBUF_OK)
#define is_status(call, wanted)                                                                                 \
  do {                                                                                                          \
    const packbuf_status got_ = (call);                                                                         \
    expect(got_ == (wanted), "%s: %s, not %s", #call, packbuf_status_name(got_), packbuf_status_name(wanted));  \
  } while (0)

/* ---- a call from there, of which the line is cut in the middle ---- */

typedef struct far_call {
  pthread_t thread;
  packbuf_store *store;
  packbuf_operation operation;
  packbuf_item item;
  uint64_t deadline;
  packbuf_status status;
  uint32_t over; /* (atomic) */
} far_call;

static void *far_run(void *context) {
  far_call *call = (far_call *)context;
  call->status = run(call->store, call->operation, &call->item, 1, call->deadline);
  PACKBUF_I_STORE(&call->over, 1);
  return NULL;
}

/* Begins it (with a line of RATE) and returns when a part of LARGE has gone, and not all. */
static void far_begin(far_call *call, packbuf_store *store, packbuf_operation operation, const char *key,
                      uint64_t deadline) {
  const uint64_t before = held();
  memset(call, 0, sizeof *call);
  call->store = store;
  call->operation = operation;
  call->item = item_of(key);
  call->deadline = deadline;
  if (operation == PACKBUF_PUT) {
    call->item.from = source;
    call->item.size = LARGE;
  } else {
    call->item.into = target;
    call->item.capacity = LARGE;
  }
  expect(pthread_create(&call->thread, NULL, far_run, call) == 0, "a thread");
  wait_until(held() > before || PACKBUF_I_LOAD(&call->over), 20, "a call begins");
  packbuf_i_sleep_until(packbuf_deadline_in(300));
  expect(!PACKBUF_I_LOAD(&call->over), "it is in the middle");
}

static void far_end(far_call *call) { (void)pthread_join(call->thread, NULL); }

/* ---- cases of all transports ---- */

/* Both transports hide all of this, but late. */
static void under(const char *const *hows, unsigned count) {
  enum { N = 64, SMALL = 6000 };
  for (unsigned w = 0; w < count; w++) {
    packbuf_item items[N];
    char keys[N][16];
    weather(hows[w]);
    fill(source, N + SMALL, w);
    for (unsigned i = 0; i < N; i++) {
      snprintf(keys[i], sizeof keys[i], "weather/%u", i);
      items[i] = item_of(keys[i]);
      items[i].from = source + i;
      items[i].size = SMALL;
    }
    is_ok(run(client, PACKBUF_PUT, items, N, soon()));
    is_ok(run(client, PACKBUF_GET, items, N, soon()));
    for (unsigned i = 0; i < N; i++) {
      expect(items[i].lease.size == SMALL && memcmp(items[i].lease.data, source + i, SMALL) == 0, "%s: %s", hows[w],
             keys[i]);
      packbuf_lease_release(&items[i].lease);
    }
    is_ok(run(client, PACKBUF_REMOVE, items, N, soon()));
    is_ok(put(client, "weather", 2 * MIB, w));
    is_ok(get(client, "weather", 2 * MIB, w));
    is_ok(get(observer, "weather", 2 * MIB, w));
    is_ok(take_away(client, "weather"));
    weather(NULL);
    verdict_on("weather", hows[w] + 6);
  }
  expect(counters_of(client).reconnects == 0, "no connection broke");
  verdict_on("weather", "no connection broke");
}

static void test_cut_put(void) {
  uint64_t before;
  far_call call;
  is_ok(put(observer, "put", 1000, 1));
  before = used();
  fill(source, LARGE, 2);
  weather(RATE);
  far_begin(&call, client, PACKBUF_PUT, "put", packbuf_deadline_in(1500));
  expect(used() >= before + LARGE, "room is reserved");
  line_cut();
  far_end(&call);
  expect(is_cut(call.status), "%s", packbuf_status_name(call.status));
  is_ok(get(observer, "put", 1000, 1));
  wait_until(used() == before, 10, "the server has its room back while the line is cut");
  line_mended();
  weather(NULL);
  is_ok(put(client, "put", LARGE, 3));
  is_ok(get(observer, "put", LARGE, 3));
  is_ok(take_away(client, "put"));
  wait_until(PACKBUF_I_LOAD(&server->connections) == 2, 10, "no old connection stays");
  verdict_on("a line cut in the middle of a put",
             "the deadline holds, what was there stays, room comes back, the next call is done");
}

static void test_cut_get(void) {
  far_call call;
  is_ok(put(observer, "get", LARGE, 4));
  weather(RATE);
  memset(target, 0, LARGE);
  far_begin(&call, client, PACKBUF_GET, "get", packbuf_deadline_in(1500));
  expect(held() == 1, "a lease");
  line_cut();
  far_end(&call);
  expect(is_cut(call.status), "%s", packbuf_status_name(call.status));
  expect(call.item.got == 0 && !call.item.lease.data && counters_of(client).pool_used == 0, "nothing was got");
  line_mended();
  weather(NULL);
  wait_until(held() == 0, 10, "the server has its lease back");
  is_ok(get(client, "get", LARGE, 4));
  is_ok(take_away(client, "get"));
  verdict_on("a line cut in the middle of a get", "the deadline holds, the lease ends, the next call is done");
}

/* ---- all of it ---- */

typedef struct one_case {
  const char *name;
  void (*run)(void);
  int when_asked; /* it takes long */
} one_case;

static void start(void) {
  packbuf_store_options options = packbuf_default_store_options();
  source = (uint8_t *)malloc(2 * LARGE);
  target = source + LARGE;
  options.size = 64 * MIB;
  go(HERE);
  is_ok(packbuf_store_open("local:", &options, &served, NULL));
  is_ok(serve());
  observer = open_at(HERE);
  client = open_at(THERE);
  verdict_on(reached_at, "a server, and a client at each end");
  if (!server || !observer || !client) exit(tap_plan_done());
}

static void stop(void) {
  is_ok(packbuf_store_close(client, soon(), NULL));
  is_ok(packbuf_store_close(observer, soon(), NULL));
  is_ok(packbuf_server_close(server, soon(), NULL));
  expect(used() == 0, "%u bytes are left", (unsigned)used());
  is_ok(packbuf_store_close(served, soon(), NULL));
  free(source);
  verdict_on(reached_at, "nothing is left");
}

/* Runs the cases, or those that are named. */
static int run_cases(const one_case *cases, size_t count, int names, char **name) {
  start();
  for (size_t i = 0; i < count; i++) {
    const uint64_t from = packbuf_now();
    int asked = !names && !cases[i].when_asked;
    for (int n = 0; n < names; n++) asked |= strcmp(name[n], cases[i].name) == 0;
    if (!asked) continue;
    begin(cases[i].name);
    cases[i].run();
    tap_note("%s took %u ms", cases[i].name, (unsigned)((packbuf_now() - from) / 1000000u));
  }
  stop();
  return tap_plan_done();
}

#endif
