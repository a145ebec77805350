/* tests/guest/faults.c: what a client and a server of tcp meet where the network between them fails: bytes that are lost,
 * late, flipped, doubled, out of order; a line that is cut in the middle of a put and of a get, and comes back; a reader
 * that does not read; an end that is gone without a word. One process with the server and an observer in the namespace
 * `here` and the client in `there`: a socket belongs to the namespace that its thread was in when it was made.
 * Runs in the guest, after `namespaces` (tests/guest/lib.sh), as `faults [CASE...]`; `narrow`,
 * which takes a minute, when it is named. May use: internals.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "../internals.h"
#include "../fence.h"
#include <sched.h>
#include <sys/wait.h>

#define MIB ((uint64_t)1 << 20)
#define LARGE (24 * MIB) /* of one object: at the rate below it takes two seconds */
#define RATE "netem rate 100mbit"
#define SECRET "hush"

enum { HERE, THERE };

static int spaces[2];
static packbuf_store *served, *observer, *client; /* observer: here; client: there, one connection */
static packbuf_server *server;
static uint8_t *source, *target; /* LARGE bytes each */

/* ---- the network ---- */

/* From now on the calling thread is in that namespace. */
static void go(int where) {
  if (setns(spaces[where], CLONE_NEWNET) != 0) {
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
static void line_mended(void) { command(THERE, "/usr/bin/ip link set veth1 up"); }

/* Both directions; NULL: as it was. */
static void weather(const char *how) {
  for (int where = HERE; where <= THERE; where++) {
    char text[200];
    snprintf(text, sizeof text, "/usr/bin/tc qdisc %s dev veth%d root %s", how ? "replace" : "del", where, how ? how : "");
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
  status = packbuf_store_open_driver(&packbuf_i_tcp_driver, packbuf_server_uri(server), &options, &store, &error);
  go(HERE);
  expect(!status, "a client: %s %s", packbuf_status_name(status), status ? error.message : "");
  return store;
}

static packbuf_status serve_at(const char *uri) {
  packbuf_server_options options;
  memset(&options, 0, sizeof options);
  options.lease_ms = 1000;
  options.secret = SECRET;
  options.secret_size = strlen(SECRET);
  return packbuf_server_open(served, uri, &options, &server, NULL);
}

static packbuf_counters counters_of(packbuf_store *store) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  (void)packbuf_store_counters(store, &counters, NULL);
  return counters;
}

static packbuf_counters counters_of_server(void) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  (void)packbuf_server_counters(server, &counters, NULL);
  return counters;
}

static uint64_t used(void) {
  static packbuf_store_info info;
  (void)packbuf_store_describe(served, &info, soon(), NULL);
  return info.used;
}

/* Waits until something is so, or the time that it may take at the very most is over: what it may take. */
#define wait_until(condition, seconds, what)                                                                   \
  do {                                                                                                         \
    const uint64_t patience = packbuf_deadline_in((uint64_t)(seconds) * 1000);                                  \
    while (!(condition) && packbuf_now() < patience) packbuf_i_sleep_until(packbuf_deadline_in(5));             \
    expect(condition, "%s, within %d s", what, (int)(seconds));                                                \
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

static packbuf_item item_of(const char *key) {
  packbuf_item item;
  memset(&item, 0, sizeof item);
  item.key = key;
  return item;
}

/* A batch from where the client is: it may have to connect again. */
static packbuf_status run(packbuf_store *store, packbuf_operation operation, packbuf_item *items, uint64_t count, uint64_t deadline) {
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

/* Begins it and returns when a part of LARGE has gone, and not all. */
static void far_begin(far_call *call, packbuf_store *store, packbuf_operation operation, const char *key, uint64_t deadline) {
  const uint64_t before = counters_of_server().bytes_moved;
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
  wait_until(counters_of_server().bytes_moved - before > 2 * MIB || PACKBUF_I_LOAD(&call->over), 20, "the middle of a call");
  expect(!PACKBUF_I_LOAD(&call->over), "it is in the middle");
}

static void far_end(far_call *call) { (void)pthread_join(call->thread, NULL); }

/* ---- the cases ---- */

/* TCP hides all of this, but late. */
static void test_weather(void) {
  static const char *hows[] = {"netem loss 1%", "netem delay 5ms 2ms", "netem corrupt 1%", "netem duplicate 5%",
                               "netem delay 2ms reorder 25%", "netem delay 1ms loss 1% corrupt 1% duplicate 1%"};
  enum { N = 64, SMALL = 3000 };
  for (unsigned w = 0; w < sizeof hows / sizeof *hows; w++) {
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
      expect(items[i].lease.size == SMALL && memcmp(items[i].lease.data, source + i, SMALL) == 0, "%s: %s", hows[w], keys[i]);
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
  is_status(call.status, PACKBUF_TIMEOUT);
  is_ok(get(observer, "put", 1000, 1));
  wait_until(used() == before, 5, "the server has its room back while the line is cut");
  line_mended();
  weather(NULL);
  is_ok(put(client, "put", LARGE, 3));
  is_ok(get(observer, "put", LARGE, 3));
  is_ok(take_away(client, "put"));
  expect(counters_of(client).reconnects == 1, "by a new connection");
  wait_until(PACKBUF_I_LOAD(&server->connections) == 2, 10, "the old one has ended");
  verdict_on("a line cut in the middle of a put", "the deadline holds, what was there stays, room comes back, the next call is done");
}

static void test_cut_get(void) {
  far_call call;
  is_ok(put(observer, "get", LARGE, 4));
  weather(RATE);
  memset(target, 0, LARGE);
  far_begin(&call, client, PACKBUF_GET, "get", packbuf_deadline_in(1500));
  expect(counters_of_server().leases == 1, "a lease");
  line_cut();
  far_end(&call);
  is_status(call.status, PACKBUF_TIMEOUT);
  expect(call.item.got == 0 && !call.item.lease.data && counters_of(client).pool_used == 0, "nothing was got");
  line_mended();
  weather(NULL);
  wait_until(counters_of_server().leases == 0, 10, "the server has its lease back");
  is_ok(get(client, "get", LARGE, 4));
  is_ok(take_away(client, "get"));
  verdict_on("a line cut in the middle of a get", "the deadline holds, the lease ends, the next call is done");
}

/* While the line is cut nobody can tell whether the other end lives: its room is taken when it is wanted. */
static void test_cut_wanted(void) {
  packbuf_item more = item_of("more");
  far_call call;
  is_ok(put(observer, "wanted", LARGE, 5));
  weather(RATE);
  far_begin(&call, client, PACKBUF_GET, "wanted", soon());
  line_cut();
  is_ok(take_away(observer, "wanted"));
  expect(used() >= LARGE, "it is leased");
  more.from = source;
  for (unsigned i = 0; i < 2; i++) {
    char key[16];
    snprintf(key, sizeof key, "more/%u", i);
    more.key = key;
    more.size = LARGE;
    is_ok(run(observer, PACKBUF_PUT, &more, 1, soon()));
  }
  expect(counters_of_server().recovered > 0, "it was cut off");
  line_mended();
  weather(NULL);
  far_end(&call);
  is_status(call.status, PACKBUF_DISCONNECTED);
  is_status(get(client, "wanted", LARGE, 5), PACKBUF_NOT_FOUND);
  is_ok(take_away(client, "more/0"));
  is_ok(take_away(client, "more/1"));
  verdict_on("a line cut in the middle of a get", "its memory is taken back when room is wanted");
}

/* A client that asks for 1 MiB as often as it can and reads nothing of it. The server reads no more from it once 8 MiB are
 * on their way, but what it has read by then, 64 KiB of requests at most, it has begun: leases of objects, not copies. */
static void test_slow_reader(void) {
  packbuf_store *slow = open_at(THERE);
  packbuf_i_peer *peer = NULL;
  packbuf_item item = item_of("slow");
  packbuf_call call;
  const uint64_t gets = counters_of_server().gets;
  uint64_t asked, asking, sent = 0, begun;
  size_t room;
  is_ok(put(observer, "slow", MIB, 6));
  memset(&call, 0, sizeof call);
  call.operation = PACKBUF_GET;
  call.items = &item;
  call.count = 1;
  call.deadline = PACKBUF_FOREVER;
  is_ok(packbuf_i_peer_take((packbuf_i_tcp *)slow->state, soon(), &peer, NULL));
  peer->call = &call;
  (void)packbuf_i_peer_choose(peer, 0, &room);
  packbuf_i_peer_ask(peer, room);
  asking = peer->frame_size * 20000;
  for (uint64_t i = 0; i < asking; i++) target[i] = peer->frame[i % peer->frame_size];
  for (unsigned quiet = 0; sent < asking && quiet < 20; quiet++) {
    const ssize_t some = send(peer->fd, target + sent, asking - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (some > 0) sent += (uint64_t)some, quiet = 0;
    else packbuf_i_sleep_until(packbuf_deadline_in(10));
  }
  asked = sent / peer->frame_size;
  begun = 65536 / peer->frame_size + 16;
  expect(asked > 2 * begun, "it asked %u times", (unsigned)asked);
  for (unsigned i = 0; i < 20; i++) {
    is_ok(put(observer, "others", 100000, i));
    is_ok(get(client, "others", 100000, i));
    packbuf_i_sleep_until(packbuf_deadline_in(20));
  }
  expect(counters_of_server().gets - gets <= begun + 20, "%u of %u gets were begun", (unsigned)(counters_of_server().gets - gets), (unsigned)asked);
  packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the test");
  packbuf_i_peer_leave(peer);
  is_ok(packbuf_store_close(slow, soon(), NULL));
  wait_until(counters_of_server().leases == 0, 10, "its leases have ended");
  is_ok(take_away(client, "slow"));
  is_ok(take_away(client, "others"));
  verdict_on("a reader that does not read", "the server stops listening to it, others are served");
}

/* Another server behind the same address: the client's connection stands, with nobody at its other end, until it hears
 * of that from the first packet that is sent again, or from the new server's machine when it calls. */
static void test_server_again(void) {
  char uri[PACKBUF_MAX_URI + 1];
  packbuf_status first;
  memcpy(uri, packbuf_server_uri(server), sizeof uri);
  is_ok(put(client, "again", 1000, 7));
  line_cut();
  is_ok(packbuf_server_close(server, packbuf_deadline_in(100), NULL));
  is_ok(serve_at(uri));
  line_mended();
  first = get(client, "again", 1000, 7);
  expect(first == PACKBUF_OK || first == PACKBUF_DISCONNECTED, "the first call: %s", packbuf_status_name(first));
  is_ok(get(client, "again", 1000, 7));
  is_ok(get(observer, "again", 1000, 7));
  is_ok(take_away(client, "again"));
  verdict_on("a server that started again while the line was cut", "one call fails, the next is done");
}

/* Clients that are gone without a word: in the middle of a put and of a get, and idle. The line stays cut. */
static void test_half_open(void) {
  packbuf_store *idle = open_at(THERE), *putting = open_at(THERE), *getting = open_at(THERE);
  const uint64_t before = used();
  far_call put_call, get_call;
  is_ok(put(observer, "half", LARGE, 8));
  weather(RATE);
  far_begin(&put_call, putting, PACKBUF_PUT, "open", PACKBUF_FOREVER);
  far_begin(&get_call, getting, PACKBUF_GET, "half", PACKBUF_FOREVER);
  line_cut();
  far_end(&put_call);
  far_end(&get_call);
  is_status(put_call.status, PACKBUF_DISCONNECTED);
  is_status(get_call.status, PACKBUF_DISCONNECTED);
  wait_until(counters_of_server().leases == 0 && counters_of(served).slices == 0, 20, "the server has all memory back");
  wait_until(PACKBUF_I_LOAD(&server->connections) == 1, 20, "the server knows that they are gone");
  line_mended();
  weather(NULL);
  is_ok(get(client, "half", LARGE, 8));
  is_ok(get(idle, "half", LARGE, 8));
  is_ok(take_away(client, "half"));
  wait_until(used() == before, 5, "nothing is left");
  is_ok(packbuf_store_close(idle, soon(), NULL));
  is_ok(packbuf_store_close(putting, soon(), NULL));
  is_ok(packbuf_store_close(getting, soon(), NULL));
  verdict_on("ends that are gone without a word", "all that they held comes back in half a minute");
}

/* A line so narrow that a put takes longer than the silence after which a server is given up. */
static void test_narrow(void) {
  packbuf_item item = item_of("narrow");
  fill(source, LARGE, 9);
  item.from = source;
  item.size = LARGE;
  weather("netem rate 4mbit");
  is_ok(run(client, PACKBUF_PUT, &item, 1, PACKBUF_FOREVER));
  weather(NULL);
  is_ok(get(observer, "narrow", LARGE, 9));
  is_ok(take_away(observer, "narrow"));
  verdict_on("a narrow line", "a put that takes 50 s is done");
}

/* ---- all of it ---- */

static void start(void) {
  packbuf_store_options options = packbuf_default_store_options();
  const size_t ceiling = 2 * LARGE;
  spaces[HERE] = open("/run/netns/here", O_RDONLY | O_CLOEXEC);
  spaces[THERE] = open("/run/netns/there", O_RDONLY | O_CLOEXEC);
  source = (uint8_t *)malloc(ceiling);
  target = source + LARGE;
  options.size = 64 * MIB;
  go(HERE);
  is_ok(packbuf_store_open("local:", &options, &served, NULL));
  is_ok(serve_at("tcp://10.78.0.1:7000"));
  observer = open_at(HERE);
  client = open_at(THERE);
  verdict_on("two namespaces", "a server, and a client at each end");
}

static void stop(void) {
  is_ok(packbuf_store_close(client, soon(), NULL));
  is_ok(packbuf_store_close(observer, soon(), NULL));
  is_ok(packbuf_server_close(server, soon(), NULL));
  expect(used() == 0, "%u bytes are left", (unsigned)used());
  is_ok(packbuf_store_close(served, soon(), NULL));
  free(source);
  verdict_on("all of it", "nothing is left");
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
    int when_asked;
  } cases[] = {{"weather", test_weather, 0},           {"cut_put", test_cut_put, 0},
               {"cut_get", test_cut_get, 0},           {"cut_wanted", test_cut_wanted, 0},
               {"slow_reader", test_slow_reader, 0},   {"server_again", test_server_again, 0},
               {"half_open", test_half_open, 0},       {"narrow", test_narrow, 1}};
  start();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const uint64_t from = packbuf_now();
    int asked = argc == 1 && !cases[i].when_asked;
    for (int a = 1; a < argc; a++) asked |= strcmp(argv[a], cases[i].name) == 0;
    if (!asked) continue;
    begin(cases[i].name);
    cases[i].run();
    tap_note("%s took %u ms", cases[i].name, (unsigned)((packbuf_now() - from) / 1000000u));
  }
  stop();
  return tap_plan_done();
}
