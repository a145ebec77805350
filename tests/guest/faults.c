/* tests/guest/faults.c: what clients and a server of tcp meet where the network between them fails: bytes that are
 * lost, late, flipped, doubled, out of order; a line that is cut in the middle of a put and of a get, and comes back; a
 * reader that does not read; an end that is gone without a word. Runs in the guest, after `namespaces`
 * (tests/guest/lib.sh), as `faults [CASE...]`; `narrow`, which takes a minute, when
 * it is named. May use: ends.h. */
#include "ends.h"

static packbuf_counters counters_of_server(void) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  (void)packbuf_server_counters(server, &counters, NULL);
  return counters;
}

static void test_weather(void) {
  static const char *const hows[] = {"netem loss 1%", "netem delay 5ms 2ms", "netem corrupt 1%", "netem duplicate 5%",
                                     "netem delay 2ms reorder 25%", "netem delay 1ms loss 1% corrupt 1% duplicate 1%"};
  under(hows, sizeof hows / sizeof *hows);
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

/* A client that asks for 1 MiB as often as it can and reads nothing of it. The server reads no more from it once 8 MiB
 * are on their way, but what it has read by then, 64 KiB of requests at most, it has begun: leases of objects, not
 * copies. */
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
  expect(counters_of_server().gets - gets <= begun + 20, "%u of %u gets were begun",
         (unsigned)(counters_of_server().gets - gets), (unsigned)asked);
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
  packbuf_status first;
  is_ok(put(client, "again", 1000, 7));
  line_cut();
  is_ok(packbuf_server_close(server, packbuf_deadline_in(100), NULL));
  is_ok(serve());
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
  wait_until(held() == 0, 20, "the server has all memory back");
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

int main(int argc, char **argv) {
  static const one_case cases[] = {{"weather", test_weather, 0},         {"cut_put", test_cut_put, 0},
                                   {"cut_get", test_cut_get, 0},         {"cut_wanted", test_cut_wanted, 0},
                                   {"slow_reader", test_slow_reader, 0}, {"server_again", test_server_again, 0},
                                   {"half_open", test_half_open, 0},     {"narrow", test_narrow, 1}};
  served_at = reached_at = "tcp://10.78.0.1:7000";
  spaces[HERE] = open("/run/netns/here", O_RDONLY | O_CLOEXEC);
  spaces[THERE] = open("/run/netns/there", O_RDONLY | O_CLOEXEC);
  return run_cases(cases, sizeof cases / sizeof *cases, argc - 1, argv + 1);
}
