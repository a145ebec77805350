/* The store verbs: what it promises beyond the contract. Without a device: UNAVAILABLE with the reason, or tcp. With
 * the double of libibverbs (tests/double/ibverbs.c), or a real device: no registrations after warm-up, one completion
 * for a batch, items of a few bytes in frames, keys and addresses of hostile clients refused, servers and clients that
 * go away. It serves itself, by the double where that is what is loaded (tests/stores.sh), or at STORE_SERVER_URI with
 * the devices STORE_SERVER_DEVICE and STORE_CLIENT_DEVICE. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "tap.h"
#include "items.h"

#define ITEMS 256u
#define SIZE 20000u

static packbuf_store *behind, *store;
static packbuf_server *server;
static char uri[600];
static packbuf_error error;
static uint64_t
    *counted; /* of the double: registrations, requests, completions asked for, READs that failed; NULL: none */

static uint8_t *from, *into; /* ITEMS * SIZE bytes each, registered */

static void fill(uint8_t *bytes, size_t size, unsigned seed) {
  for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(seed + i * 31 + (i >> 8) * 7);
}

static int filled(const void *data, size_t size, unsigned seed) {
  const uint8_t *bytes = (const uint8_t *)data;
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != (uint8_t)(seed + i * 31 + (i >> 8) * 7)) return 0;
  return 1;
}

static packbuf_counters counters(void) {
  packbuf_counters now;
  memset(&now, 0, sizeof now);
  (void)packbuf_store_counters(store, &now, NULL);
  return now;
}

static uint64_t soon(void) { return packbuf_deadline_in(30000); }

/* ---- without a device ---- */

static void test_unavailable(void) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_server *made = NULL;
  packbuf_store *opened = NULL;
  packbuf_store_info info;
  packbuf_status status;
  char tcp[200], text[300];
  status = packbuf_server_open(behind, "verbs://127.0.0.1:0", NULL, &made, &error);
  (void)packbuf_error_format(&error, text, sizeof text);
  tap_ok(status == PACKBUF_UNAVAILABLE && !made && error.message[0], "a server without a device: %s", text);
  if (!tap_ok(!packbuf_server_open(behind, "tcp://127.0.0.1:0", NULL, &made, &error), "a server of tcp")) return;
  snprintf(tcp, sizeof tcp, "verbs://%s", packbuf_server_uri(made) + 6);
  options.pool_size = 1 << 20;
  status = packbuf_store_open(tcp, &options, &opened, &error);
  (void)packbuf_error_format(&error, text, sizeof text);
  tap_ok(status == PACKBUF_UNAVAILABLE && !opened && error.message[0], "a client without a device: %s", text);
  options.step_down = 1;
  status = packbuf_store_open(tcp, &options, &opened, &error);
  if (tap_ok(!status && opened, "which may step down")) {
    packbuf_item item = item_of("k");
    memset(&info, 0, sizeof info);
    (void)packbuf_store_describe(opened, &info, soon(), NULL);
    tap_ok(info.transport && strcmp(info.transport, "tcp") == 0 && info.stepped_down && info.stepped_down[0],
           "is tcp, and says why: %s", info.stepped_down ? info.stepped_down : "?");
    item.from = "some bytes";
    item.size = 10;
    tap_ok(!packbuf_batch_put(opened, &item, 1, soon(), NULL), "and puts");
    item.from = NULL;
    item.size = 0;
    tap_ok(!packbuf_batch_get(opened, &item, 1, soon(), NULL) && memcmp(item.lease.data, "some bytes", 10) == 0,
           "and gets");
    packbuf_lease_release(&item.lease);
    tap_ok(!packbuf_register(opened, uri, sizeof uri, NULL) && !packbuf_unregister(opened, uri, sizeof uri, NULL),
           "and registers whatever is asked for");
    tap_ok(!packbuf_store_close(opened, soon(), NULL), "and closes");
  }
  snprintf(text, sizeof text, "%s?device=a:b:c:d", tcp);
  options.step_down = 0;
  status = packbuf_store_open(text, &options, &opened, &error);
  tap_ok(status == PACKBUF_INVALID_ARGUMENT, "a device that is named wrongly: %s", packbuf_status_name(status));
  tap_ok(!packbuf_server_close(made, soon(), NULL), "the server ends");
}

/* ---- with one ---- */

static void many(packbuf_item *items, char (*keys)[16], uint64_t size, int put) {
  for (unsigned i = 0; i < ITEMS; i++) {
    snprintf(keys[i], sizeof keys[i], "m%u", i);
    items[i] = item_of(keys[i]);
    if (put) {
      items[i].from = from + i * SIZE;
      items[i].size = size;
    } else {
      items[i].into = into + i * SIZE;
      items[i].capacity = SIZE;
    }
  }
}

/* A batch and the one after it: nothing is registered any more, and each has as few completions as it may. */
static void test_steady(uint64_t size) {
  static packbuf_item items[ITEMS];
  static char keys[ITEMS][16];
  packbuf_counters before;
  uint64_t asked = 0, posted = 0;
  unsigned good = 0;
  fill(from, ITEMS * SIZE, 3);
  many(items, keys, size, 1);
  tap_ok(!packbuf_batch_put(store, items, ITEMS, soon(), &error), "%u items of %d bytes are put (%s)", ITEMS, (int)size,
         packbuf_status_name(items[0].status));
  many(items, keys, size, 0);
  (void)packbuf_batch_get(store, items, ITEMS, soon(), &error);
  before = counters();
  for (int i = 0; i < 3; i++) {
    many(items, keys, size, 1);
    (void)packbuf_batch_put(store, items, ITEMS, soon(), NULL);
    memset(into, 0, ITEMS * SIZE);
    many(items, keys, size, 0);
    if (counted && server && i == 2) asked = counted[2], posted = counted[1];
    (void)packbuf_batch_get(store, items, ITEMS, soon(), NULL);
    if (counted && server && i == 2) asked = counted[2] - asked, posted = counted[1] - posted;
  }
  for (unsigned i = 0; i < ITEMS; i++)
    good += !items[i].status && items[i].got == size && memcmp(into + i * SIZE, from + i * SIZE, size) == 0;
  tap_ok(good == ITEMS, "and got: %u right", good);
  tap_ok(counters().registrations == before.registrations, "no registration after warm-up: %d",
         (int)(counters().registrations - before.registrations));
  if (!counted || !server) return;
  if (size > PACKBUF_I_SMALL)
    tap_ok(asked <= PACKBUF_I_PAIRS && asked >= 1 && posted == ITEMS + asked, "a get of all: %d READs, %d completions",
           (int)posted, (int)asked);
  else tap_ok(posted == 0, "items of a few bytes need no READ: %d", (int)posted);
}

static void test_ranges(void) {
  static packbuf_range ranges[1000];
  packbuf_item item = item_of("ranges");
  uint64_t total = 0;
  unsigned good = 1;
  fill(from, 1000000, 9);
  item.from = from;
  item.size = 1000000;
  tap_ok(!packbuf_batch_put(store, &item, 1, soon(), NULL), "a larger object");
  for (unsigned i = 0; i < 1000; i++) {
    ranges[i].offset = 997u * (999 - i);
    ranges[i].length = i % 7 * 60;
    total += ranges[i].length;
  }
  item = item_of("ranges");
  item.ranges = ranges;
  item.range_count = 1000;
  tap_ok(!packbuf_batch_get(store, &item, 1, soon(), NULL) && item.got == total, "1,000 ranges of it: %s",
         packbuf_status_name(item.status));
  total = 0;
  for (unsigned i = 0; !item.status && i < 1000; i++) {
    good &= memcmp((const uint8_t *)item.lease.data + total, from + ranges[i].offset, ranges[i].length) == 0;
    total += ranges[i].length;
  }
  tap_ok(!item.status && good, "end to end, in their order");
  packbuf_lease_release(&item.lease);
}

/* Memory that nobody registered: for the call, or not at all. */
static void test_unregistered(void) {
  uint8_t *memory = (uint8_t *)malloc(SIZE);
  packbuf_item item = item_of("own");
  uint64_t before = counters().registrations;
  item.from = memory;
  item.size = SIZE;
  fill(memory, SIZE, 1);
  tap_ok(!packbuf_batch_put(store, &item, 1, soon(), NULL) && counters().registrations == before + 1,
         "memory that nobody registered is registered for the call");
  item.size = PACKBUF_I_SMALL;
  tap_ok(!packbuf_batch_put(store, &item, 1, soon(), NULL) && counters().registrations == before + 1,
         "not for a few bytes");
  free(memory);
}

/* ---- a client that lies ---- */

typedef struct liar {
  packbuf_i_intake ear;
  int fd;
  unsigned results, located, said_goodbye;
  packbuf_i_result result;
  packbuf_i_located place;
  packbuf_i_pairing theirs;
} liar;

static const char *liar_hears(void *context, const packbuf_i_frame *frame, const uint8_t *body) {
  liar *l = (liar *)context;
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  packbuf_i_bye bye;
  if (frame->type == PACKBUF_I_RESULT) l->results++, (void)packbuf_i_result_read(&reader, &l->result);
  if (frame->type == PACKBUF_I_LOCATED) l->located++, (void)packbuf_i_located_read(&reader, &l->place);
  if (frame->type == PACKBUF_I_PAIRING) l->results++, (void)packbuf_i_pairing_read(frame, body, &l->theirs);
  if (frame->type == PACKBUF_I_WELCOME) l->results++;
  if (frame->type == PACKBUF_I_BYE && !packbuf_i_bye_read(frame, body, &bye)) l->said_goodbye = bye.status;
  return NULL;
}
static uint8_t *liar_place(void *context, uint64_t *size) {
  (void)context, (void)size;
  return NULL;
}
static const char *liar_placed(void *context, uint64_t size) {
  (void)context, (void)size;
  return NULL;
}
static const packbuf_i_intake_taker liar_taker = {liar_hears, liar_place, liar_placed};

static void liar_says(liar *l, uint8_t *frame, const packbuf_i_wire_to *body, unsigned type, unsigned items,
                      uint64_t request) {
  const size_t size = packbuf_i_frame_end(frame, body, type, items, request, 0);
  if (send(l->fd, frame, size, MSG_NOSIGNAL) != (ssize_t)size) l->said_goodbye = 1;
}

/* Hears until something was said, for 5 s at most. 0: nothing. */
static int liar_listens(liar *l) {
  const unsigned before = l->results + l->located;
  uint8_t bytes[4096];
  for (unsigned i = 0; i < 500 && !l->said_goodbye && before == l->results + l->located; i++) {
    struct pollfd ready;
    ssize_t came;
    ready.fd = l->fd;
    ready.events = POLLIN;
    if (poll(&ready, 1, 10) <= 0) continue;
    came = recv(l->fd, bytes, sizeof bytes, 0);
    if (came <= 0) return 0;
    (void)packbuf_i_intake_feed(&l->ear, bytes, (size_t)came);
  }
  return before != l->results + l->located;
}

/* Connects, and says HELLO. */
static int liar_begins(liar *l, uint32_t features) {
  packbuf_i_address address[PACKBUF_I_ADDRESSES];
  packbuf_i_hello hello;
  packbuf_i_uri parts;
  uint8_t frame[512];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  unsigned count;
  memset(l, 0, sizeof *l);
  l->ear.taker = &liar_taker;
  l->ear.context = l;
  l->ear.most_body = PACKBUF_I_FRAME_BODY;
  memset(&hello, 0, sizeof hello);
  hello.least = hello.most = 1;
  hello.features = features;
  packbuf_i_hello_write(&body, &hello);
  (void)packbuf_i_uri_start(&parts, packbuf_server_uri(server), NULL);
  if (packbuf_i_addresses_find(parts.rest, parts.rest_size, address, &count, NULL) ||
      packbuf_i_address_connect(&address[0], soon(), &l->fd, NULL))
    return 0;
  liar_says(l, frame, &body, PACKBUF_I_HELLO, 0, 0);
  return liar_listens(l);
}

/* Makes queue pairs. */
static int liar_pairs(liar *l, packbuf_i_nic *nic, packbuf_i_pairs *pairs) {
  uint8_t frame[512];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_pairing mine;
  if (packbuf_i_pairs_open(pairs, nic, 1, NULL, NULL)) return 0;
  packbuf_i_pairs_tell(pairs, &mine);
  packbuf_i_pairing_write(&body, &mine);
  liar_says(l, frame, &body, PACKBUF_I_PAIRING, 1, 1);
  return liar_listens(l) && !l->theirs.status && !packbuf_i_pairs_join(pairs, &l->theirs);
}

static void liar_puts(liar *l, uint64_t address, uint32_t rkey, uint64_t size) {
  uint8_t frame[512];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_item item = item_of("lie");
  item.from = (const void *)(uintptr_t)address;
  item.size = size;
  packbuf_i_wire_give64(&body, 1000000000u);
  packbuf_i_put_item_write(&body, &item, PACKBUF_I_WAY_REMOTE, rkey);
  liar_says(l, frame, &body, PACKBUF_I_PUT, 1, 2);
}

static void liar_gets(liar *l, const char *key) {
  uint8_t frame[512];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_item item = item_of(key);
  packbuf_i_wire_give64(&body, 1000000000u);
  packbuf_i_get_item_write(&body, &item);
  liar_says(l, frame, &body, PACKBUF_I_GET, 1, 3);
}

static void liar_releases(liar *l, uint32_t word) {
  uint8_t frame[64];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_wire_give32(&body, word);
  liar_says(l, frame, &body, PACKBUF_I_RELEASE, 1, 4);
}

static void liar_ends(liar *l, packbuf_i_pairs *pairs) {
  if (pairs) packbuf_i_pairs_close(pairs);
  (void)close(l->fd);
  packbuf_i_intake_end(&l->ear);
}

/* One READ by a liar's own queue pair. */
static packbuf_status liar_reads(packbuf_i_pairs *pairs, packbuf_i_plot *plot, void *to, uint64_t address,
                                 uint32_t rkey, uint32_t size) {
  packbuf_status status = PACKBUF_TIMEOUT;
  const uint64_t until = soon();
  unsigned which;
  uint32_t good;
  pairs->pairs[0].count = 0;
  pairs->pairs[0].bytes = 0;
  (void)packbuf_i_pair_add(pairs, &pairs->pairs[0], to, plot->mr->lkey, address, rkey, size, NULL);
  if (!packbuf_i_pair_post(pairs, 0)) return PACKBUF_SYSTEM;
  while (!packbuf_i_pairs_ended(pairs, &which, &good, &status) && packbuf_now() < until)
    packbuf_i_sleep_until(packbuf_now() + 1000000u);
  return status;
}

static int nothing_is_there(const char *key) {
  packbuf_item item = item_of(key);
  return packbuf_batch_stat(store, &item, 1, soon(), NULL) == PACKBUF_NOT_FOUND;
}

/* The server holds nothing for anybody, soon. */
static int all_is_back(void) {
  packbuf_counters now;
  for (unsigned i = 0; i < 300; i++) {
    memset(&now, 0, sizeof now);
    if (!packbuf_server_counters(server, &now, NULL) && !now.leases && !packbuf_store_counters(behind, &now, NULL) &&
        !now.leases && !now.slices)
      return 1;
    packbuf_i_sleep_until(packbuf_now() + 10000000u);
  }
  return 0;
}

static void test_liars(void) {
  static uint8_t memory[SIZE];
  const packbuf_allocator heap = {NULL, NULL};
  packbuf_i_nic *nic = NULL;
  packbuf_i_pairs pairs;
  packbuf_i_plot plot;
  packbuf_item item = item_of("truth");
  liar l;
  if (!tap_ok(!packbuf_i_nic_open(&heap, NULL, NULL, &nic, &error), "a device for those who lie")) return;
  if (!tap_ok(!packbuf_i_plot_open(nic, memory, sizeof memory, PACKBUF_I_IBV_LOCAL_WRITE | PACKBUF_I_IBV_REMOTE_READ,
                                   &plot, NULL),
              "and memory"))
    return;
  item.from = from;
  item.size = SIZE;
  fill(from, SIZE, 77);
  tap_ok(!packbuf_batch_put(store, &item, 1, soon(), NULL), "an object");

  tap_ok(liar_begins(&l, 0) && (liar_puts(&l, (uintptr_t)memory, plot.mr->rkey, SIZE), !liar_listens(&l)) &&
             l.said_goodbye == PACKBUF_PROTOCOL && nothing_is_there("lie"),
         "a put that is to be read, without queue pairs: PROTOCOL");
  liar_ends(&l, NULL);
  tap_ok(liar_begins(&l, 0) && (liar_pairs(&l, nic, &pairs), l.said_goodbye == PACKBUF_PROTOCOL),
         "queue pairs that were not agreed on: PROTOCOL");
  liar_ends(&l, &pairs);
  tap_ok(liar_begins(&l, 1) && (liar_releases(&l, 0), !liar_listens(&l)) && l.said_goodbye == PACKBUF_PROTOCOL,
         "a lease that was not given, before queue pairs: PROTOCOL");
  liar_ends(&l, NULL);
  for (uint32_t word = 0; word < 3; word++) {
    tap_ok(liar_begins(&l, 1) && liar_pairs(&l, nic, &pairs) &&
               (liar_releases(&l, word == 2 ? UINT32_MAX : word * 511), !liar_listens(&l)) &&
               l.said_goodbye == PACKBUF_PROTOCOL,
           "a lease that was not given: PROTOCOL");
    liar_ends(&l, &pairs);
  }
  tap_ok(liar_begins(&l, 1) && liar_pairs(&l, nic, &pairs) &&
             (liar_puts(&l, (uintptr_t)memory, plot.mr->rkey ^ 1, SIZE), liar_listens(&l)) &&
             l.result.status == PACKBUF_PROTOCOL && nothing_is_there("lie"),
         "a wrong key: PROTOCOL of the item");
  tap_ok(!l.said_goodbye && (liar_puts(&l, (uintptr_t)memory, plot.mr->rkey, SIZE), liar_listens(&l)) &&
             l.result.status == PACKBUF_DISCONNECTED,
         "and without new queue pairs no item more");
  liar_ends(&l, &pairs);
  tap_ok(liar_begins(&l, 1) && liar_pairs(&l, nic, &pairs) &&
             (liar_puts(&l, (uintptr_t)memory + 1, plot.mr->rkey, SIZE), liar_listens(&l)) &&
             l.result.status == PACKBUF_PROTOCOL && nothing_is_there("lie"),
         "a byte too many: PROTOCOL of the item");
  liar_ends(&l, &pairs);
  tap_ok(liar_begins(&l, 1) && liar_pairs(&l, nic, &pairs) &&
             (liar_puts(&l, UINT64_MAX - 100, plot.mr->rkey, SIZE), !liar_listens(&l)) &&
             l.said_goodbye == PACKBUF_PROTOCOL,
         "an address that ends nowhere: PROTOCOL");
  liar_ends(&l, &pairs);
  tap_ok(all_is_back(), "nothing is held for any of them");

  tap_ok(
      liar_begins(&l, 1) && liar_pairs(&l, nic, &pairs) && (liar_gets(&l, "truth"), liar_listens(&l)) && l.located == 1,
      "one who asks is told where the object lies");
  tap_ok(
      liar_reads(&pairs, &plot, memory, l.place.address, l.place.rkey, SIZE) == PACKBUF_OK && filled(memory, SIZE, 77),
      "and may read it");
  tap_ok(liar_reads(&pairs, &plot, memory, l.theirs.address + 8 * (uint64_t)l.place.word, l.theirs.rkey, 8) ==
                 PACKBUF_OK &&
             packbuf_i_load64(memory) == l.place.stat.generation,
         "and its lease word, which is the generation");
  if (server) {
    packbuf_counters now;
    memset(&now, 0, sizeof now);
    tap_ok(!packbuf_server_counters(server, &now, NULL) && now.leases == 1, "the lease is held");
  }
  liar_releases(&l, l.place.word);
  tap_ok(all_is_back(), "until it is released");
  tap_ok(liar_reads(&pairs, &plot, memory, l.theirs.address + 8 * (uint64_t)l.place.word, l.theirs.rkey, 8) ==
                 PACKBUF_OK &&
             packbuf_i_load64(memory) == 0,
         "then the lease word is 0");
  liar_releases(&l, l.place.word);
  tap_ok(!liar_listens(&l) && l.said_goodbye == PACKBUF_PROTOCOL, "a lease that is given back twice: PROTOCOL");
  tap_ok(liar_reads(&pairs, &plot, memory, l.place.address, l.place.rkey, 8) != PACKBUF_OK,
         "and its queue pairs are gone");
  liar_ends(&l, &pairs);
  tap_ok(
      liar_begins(&l, 1) && liar_pairs(&l, nic, &pairs) && (liar_gets(&l, "truth"), liar_listens(&l)) && l.located == 1,
      "one who asks, and goes");
  liar_ends(&l, &pairs);
  tap_ok(all_is_back(), "leaves nothing");
  packbuf_i_plot_close(nic, &plot);
  packbuf_i_nic_close(nic);
  item = item_of("truth");
  tap_ok(!packbuf_batch_get(store, &item, 1, soon(), NULL) && filled(item.lease.data, SIZE, 77),
         "and those who do not lie have not noticed");
  packbuf_lease_release(&item.lease);
}

/* ---- queue pairs that break under a client ---- */

/* Ends the queue pairs of all idle connections; the server does not know. */
static unsigned break_pairs(void) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)store->state;
  unsigned broke = 0;
  for (unsigned i = 0; i < tcp->peer_count; i++) {
    packbuf_i_pairs *pairs = &tcp->peers[i].pairs;
    if (!pairs->pairs) continue;
    (void)tcp->nic->ibv.destroy_qp(pairs->pairs[0].qp);
    pairs->pairs[0].qp = NULL;
    broke++;
  }
  return broke;
}

static void three(packbuf_item *items, uint8_t *first, uint8_t *second, int put) {
  static const char *const keys[3] = {"b0", "b1", "b2"};
  for (unsigned i = 0; i < 3; i++) {
    uint8_t *memory = i == 1 ? second : first + i * SIZE;
    items[i] = item_of(keys[i]);
    if (put) {
      items[i].from = memory;
      items[i].size = SIZE;
    } else {
      items[i].into = memory;
      items[i].capacity = SIZE;
    }
  }
}

/* Queue pairs that break: a batch makes new ones. */
static void test_broken_pairs(void) {
  packbuf_item items[3];
  packbuf_status status;
  fill(from, 3 * SIZE, 5);
  three(items, from, from + SIZE, 1);
  tap_ok(!packbuf_batch_put(store, items, 3, soon(), NULL), "three objects");
  tap_ok(break_pairs() > 0, "queue pairs end");
  three(items, from, from + SIZE, 1);
  status = packbuf_batch_put(store, items, 3, soon(), &error);
  tap_ok(!status, "a put makes new ones: %s", packbuf_status_name(status));
  memset(into, 0, 3 * SIZE);
  three(items, into, into + SIZE, 0);
  status = packbuf_batch_get(store, items, 3, soon(), &error);
  tap_ok(!status && memcmp(into, from, 3 * SIZE) == 0, "and a get has right bytes: %s", packbuf_status_name(status));
}

/* Lease words that are not the generation: what was read may be somebody else's by now. */
static void test_lease_words(void) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)store->state;
  const uint64_t away = 8 * 256; /* words that are 0, as those of a lease that is over */
  packbuf_item items[3];
  three(items, into, into + SIZE, 0);
  for (unsigned i = 0; i < tcp->peer_count; i++) tcp->peers[i].theirs.address += away;
  (void)packbuf_batch_get(store, items, 3, soon(), NULL);
  tap_ok(items[0].status == PACKBUF_STALE && items[2].status == PACKBUF_STALE && !items[0].got,
         "lease words that are 0: %s", packbuf_status_name(items[0].status));
  for (unsigned i = 0; i < tcp->peer_count; i++) tcp->peers[i].theirs.address -= away;
  three(items, into, into + SIZE, 0);
  (void)packbuf_batch_get(store, items, 3, soon(), NULL);
  tap_ok(!items[0].status && !items[2].status, "and that are not: %s", packbuf_status_name(items[0].status));
}

/* Keys of one item's memory that the device does not know: that item's fault, and nobody else's. */
static void test_wrong_keys(void) {
  uint8_t *memory = (uint8_t *)mmap(NULL, 16 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
          *own = memory + 8 * SIZE;
  const uint64_t start = (uint64_t)(uintptr_t)own;
  packbuf_item items[3];
  packbuf_i_plot *plot;
  if (!tap_ok(!packbuf_register(store, own, SIZE, NULL), "memory of its own")) return;
  plot = (packbuf_i_plot *)packbuf_i_cache_covering(&store->cache, start, start + SIZE)->registration->handle;
  fill(own, SIZE, 6);
  plot->mr->rkey ^= 1;
  three(items, from, own, 1);
  (void)packbuf_batch_put(store, items, 3, soon(), NULL);
  tap_ok(!items[0].status && items[1].status == PACKBUF_PROTOCOL && !items[2].status,
         "put with a key that is none: %s, %s, %s", packbuf_status_name(items[0].status),
         packbuf_status_name(items[1].status), packbuf_status_name(items[2].status));
  plot->mr->rkey ^= 1;
  three(items, from, own, 1);
  (void)packbuf_batch_put(store, items, 3, soon(), NULL);
  tap_ok(!items[0].status && !items[1].status && !items[2].status, "and with the right one: %s",
         packbuf_status_name(items[1].status));
  plot->mr->lkey ^= 1;
  memset(own, 0, SIZE);
  three(items, into, own, 0);
  (void)packbuf_batch_get(store, items, 3, soon(), NULL);
  tap_ok(!items[0].status && items[1].status == PACKBUF_UNREGISTERED && !items[2].status,
         "got with a key that is none: %s, %s, %s", packbuf_status_name(items[0].status),
         packbuf_status_name(items[1].status), packbuf_status_name(items[2].status));
  plot->mr->lkey ^= 1;
  three(items, into, own, 0);
  (void)packbuf_batch_get(store, items, 3, soon(), NULL);
  tap_ok(!items[1].status && filled(own, SIZE, 6), "and with the right one: %s", packbuf_status_name(items[1].status));
  tap_ok(!packbuf_unregister(store, own, SIZE, NULL) && munmap(memory, 16 * SIZE) == 0, "which is unregistered");
}

static int open_all(void) {
  packbuf_store_options options = packbuf_default_store_options();
  options.size = 64 << 20;
  options.objects = 2048;
  return tap_ok(
      !packbuf_store_open(getenv("STORE_BEHIND") ? getenv("STORE_BEHIND") : "local:", &options, &behind, &error),
      "a store to serve");
}

static int open_verbs(void) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_server_options serving;
  packbuf_store_info info;
  packbuf_status status;
  memset(&serving, 0, sizeof serving);
  serving.device = getenv("STORE_SERVER_DEVICE");
  status = packbuf_server_open(behind, getenv("STORE_SERVER_URI") ? getenv("STORE_SERVER_URI") : "verbs://127.0.0.1:0",
                               &serving, &server, &error);
  if (!tap_ok(!status, "a server: %s", status ? error.message : packbuf_server_uri(server))) return 0;
  snprintf(uri, sizeof uri, "%s%s%s", packbuf_server_uri(server), getenv("STORE_CLIENT_DEVICE") ? "?device=" : "",
           getenv("STORE_CLIENT_DEVICE") ? getenv("STORE_CLIENT_DEVICE") : "");
  options.pool_size = 32 << 20;
  status = packbuf_store_open(uri, &options, &store, &error);
  if (!tap_ok(!status, "a client of %s: %s", uri, status ? error.message : "good")) return 0;
  tap_ok(
      !packbuf_store_describe(store, &info, soon(), NULL) && strcmp(info.transport, "verbs") == 0 && !info.stepped_down,
      "is verbs");
  return tap_ok(!packbuf_register(store, from, 2 * ITEMS * SIZE, &error), "memory is registered");
}

int main(void) {
  const char *devices = getenv("IBVERBS_DOUBLE_DEVICES");
  void *library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  void *symbol = library ? dlsym(library, "ibverbs_double_counts") : NULL;
  const int real = getenv("STORE_SERVER_URI") != NULL;
  memcpy(&counted, &symbol, sizeof counted);
  (void)unsetenv("PACKBUF_SECRET"); /* those who lie know none */
  (void)unsetenv("PACKBUF_SECRET_FILE");
  if (!open_all()) return tap_plan_done();
  if ((!symbol && !real) || (devices && devices[0] == '0')) {
    DIR *any = opendir("/sys/class/infiniband");
    const struct dirent *entry;
    int there = 0;
    while (any && (entry = readdir(any)) != NULL) there |= entry->d_name[0] != '.';
    if (any) (void)closedir(any);
    if (!there) test_unavailable();
    return tap_plan_done();
  }
  from = (uint8_t *)mmap(NULL, 2 * ITEMS * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  into = from + ITEMS * SIZE;
  if (!open_verbs()) return tap_plan_done();
  test_steady(SIZE);
  test_steady(1000);
  test_ranges();
  test_unregistered();
  test_broken_pairs();
  test_lease_words();
  test_wrong_keys();
  test_liars();
  tap_ok(!packbuf_unregister(store, from, 2 * ITEMS * SIZE, NULL), "memory is unregistered");
  tap_ok(!packbuf_store_close(store, soon(), &error), "the client ends");
  tap_ok(!packbuf_server_close(server, soon(), &error), "the server ends");
  tap_ok(!packbuf_store_close(behind, soon(), &error), "the store ends: nothing was left");
  return tap_plan_done();
}
