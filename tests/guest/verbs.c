/* tests/guest/verbs.c: what clients and a server of verbs meet: packets that are lost, late, flipped, doubled; a line
 * that is cut in the middle of a put and of a get; keys and registrations that are no good; clients that are killed.
 * Runs in the guest, after `roce` (tests/guest/lib.sh), as `verbs [CASE...]`: rxe0 and rxe1 lie in one namespace, so
 * that
 * the faults touch RDMA alone, not the control connection. May use: ends.h. */
#include "ends.h"

static void test_weather(void) {
  static const char *const hows[] = {"netem loss 1%", "netem delay 5ms", "netem corrupt 1%", "netem duplicate 2%"};
  under(hows, sizeof hows / sizeof *hows);
}

/* ---- keys and registrations ---- */

typedef struct registration {
  packbuf_i_nic *nic;
  packbuf_i_plot *plot;
  packbuf_i_ibv_mr gone;
} registration;

/* Ends a registration; whoever goes on using its keys uses such as were good once. */
static registration deregister(packbuf_i_nic *nic, packbuf_i_plot *plot) {
  registration r;
  memset(&r, 0, sizeof r);
  r.nic = nic;
  r.plot = plot;
  r.gone = *plot->mr;
  expect(nic->ibv.dereg_mr(plot->mr) == 0, "deregistering");
  return r;
}

static void register_again(registration *r) {
  is_ok(packbuf_i_plot_open(r->nic, (const void *)(uintptr_t)r->plot->start, r->plot->end - r->plot->start,
                            PACKBUF_I_IBV_LOCAL_WRITE | PACKBUF_I_IBV_REMOTE_READ, r->plot, NULL));
}

/* Of memory of the client that the device knows. */
static packbuf_status put_slice(packbuf_slice *slice, uint64_t size) {
  packbuf_item item = item_of("key");
  item.slice = slice;
  item.from = slice->data;
  item.size = size;
  return run(client, PACKBUF_PUT, &item, 1, soon());
}

static packbuf_slice slice_of(uint64_t size, uint64_t seed_of) {
  packbuf_slice slice;
  memset(&slice, 0, sizeof slice);
  is_ok(packbuf_reserve(client, 0, &size, 1, soon(), &slice, NULL));
  if (slice.data) fill(slice.data, size, seed_of);
  return slice;
}

/* After a call that failed: nothing is held, and the same calls are done. */
static void all_well(packbuf_slice *slice, uint64_t size, uint64_t seed_of) {
  wait_until(held() == 0, 10, "nothing is held");
  if (slice) is_ok(put_slice(slice, size));
  is_ok(get(observer, "key", size, seed_of));
  is_ok(get(client, "key", size, seed_of));
  is_ok(take_away(client, "key"));
}

static void test_bad_keys(void) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)client->state;
  packbuf_slice slice = slice_of(MIB, 11);
  tcp->slab.mr->rkey ^= 0x5a;
  is_status(put_slice(&slice, MIB), PACKBUF_PROTOCOL);
  tcp->slab.mr->rkey ^= 0x5a;
  is_status(get(observer, "key", MIB, 11), PACKBUF_NOT_FOUND);
  all_well(&slice, MIB, 11);
  verdict_on("a bad key of the client's memory", "PROTOCOL, and the same put is done with the right one");
  is_ok(put(observer, "key", MIB, 12));
  server->service.slab.mr->rkey ^= 0x5a;
  is_status(get(client, "key", MIB, 12), PACKBUF_PROTOCOL);
  server->service.slab.mr->rkey ^= 0x5a;
  all_well(NULL, MIB, 12);
  verdict_on("a bad key of the server's memory", "PROTOCOL, and the same get is done with the right one");
}

static void test_deregistered(void) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)client->state;
  packbuf_slice slice = slice_of(MIB, 13);
  registration r = deregister(tcp->nic, &tcp->slab);
  tcp->slab.mr = &r.gone;
  is_status(put_slice(&slice, MIB), PACKBUF_PROTOCOL);
  register_again(&r);
  all_well(&slice, MIB, 13);
  verdict_on("memory of the client that was deregistered", "PROTOCOL, and the same put is done once it is registered");
  is_ok(put(observer, "key", MIB, 14));
  r = deregister(server->service.nic, &server->service.slab);
  server->service.slab.mr = &r.gone;
  is_status(get(client, "key", MIB, 14), PACKBUF_PROTOCOL);
  register_again(&r);
  all_well(NULL, MIB, 14);
  verdict_on("memory of the server that was deregistered", "PROTOCOL, and the same get is done once it is registered");
}

/* ---- clients that are killed ---- */

/* In a process of its own: puts or gets until it is killed. */
static int do_until_killed(const char *what) {
  source = (uint8_t *)calloc(2, LARGE);
  target = source + LARGE;
  client = open_at(THERE);
  for (uint64_t i = 0; client; i++) {
    packbuf_item item = item_of("killed");
    if (strcmp(what, "put") == 0) (void)put(client, "killed", LARGE, 1000 + i);
    else (void)run(client, PACKBUF_GET, &item, 1, soon());
    packbuf_lease_release(&item.lease);
  }
  return 1;
}

static void test_killed(void) {
  static const char *const whats[] = {"put", "get"};
  for (unsigned i = 0; i < 2; i++) {
    pid_t child;
    is_ok(put(observer, "killed", LARGE, 16));
    weather(RATE);
    child = fork();
    if (child == 0) {
      (void)execl("/proc/self/exe", "verbs", "--until-killed", whats[i], (char *)NULL);
      _exit(127);
    }
    wait_until(held() > 0, 20, "it has begun");
    packbuf_i_sleep_until(packbuf_deadline_in(300));
    expect(held() > 0, "it is in the middle");
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    wait_until(held() == 0, 10, "what it held is back");
    weather(NULL);
    is_ok(get(client, "killed", LARGE, 16));
    is_ok(take_away(client, "killed"));
    wait_until(used() == 0, 5, "nothing is left");
    verdict_on("a client killed in the middle of a", whats[i]);
  }
}

int main(int argc, char **argv) {
  static const one_case cases[] = {{"weather", test_weather, 0},   {"bad_keys", test_bad_keys, 0},
                                   {"deregistered", test_deregistered, 0}, {"killed", test_killed, 0},
                                   {"cut_put", test_cut_put, 0},   {"cut_get", test_cut_get, 0}};
  served_at = "verbs://10.77.0.2:7000";
  reached_at = "verbs://10.77.0.2:7000?device=rxe0";
  if (argc == 3 && strcmp(argv[1], "--until-killed") == 0) return do_until_killed(argv[2]);
  return run_cases(cases, sizeof cases / sizeof *cases, argc - 1, argv + 1);
}
