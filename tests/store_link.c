/* tests/store_link.c: one connection of a server without its socket: what it answers to what it is told, what it
 * refuses, and how little of the server's memory and room a hostile client gets for its bytes.
 * May use: internals.h. Must not know: sockets, how the local store does it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "fence.h"
#include "items.h"

static void verdict(const char *what) { verdict_on("", what); }

#define MIB ((uint64_t)1 << 20)

static uint64_t soon(void) { return packbuf_deadline_in(20000); }

static packbuf_status put_bytes(packbuf_store *store, const char *key, const void *bytes, uint64_t size) {
  packbuf_item item = item_of(key);
  item.from = bytes;
  item.size = size;
  return packbuf_batch_put(store, &item, 1, soon(), NULL);
}

static packbuf_status remove_key(packbuf_store *store, const char *key) {
  packbuf_item item = item_of(key);
  return packbuf_batch_remove(store, &item, 1, soon(), NULL);
}

static int is_there(packbuf_store *store, const char *key) {
  packbuf_item item = item_of(key);
  return !packbuf_batch_stat(store, &item, 1, soon(), NULL);
}

/* ---- a client, and what it hears ---- */

typedef struct talk {
  packbuf_i_service service;
  packbuf_i_group group;
  packbuf_i_link link;
  packbuf_store *store;
  packbuf_i_intake ear;
  unsigned frames[32]; /* how many of each type came */
  uint16_t status[64]; /* of items */
  uint8_t data[4096];
  size_t data_size;
  packbuf_i_bye bye;
} talk;

static const char *talk_frame(void *context, const packbuf_i_frame *frame, const uint8_t *body) {
  talk *t = (talk *)context;
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  t->frames[frame->type]++;
  for (unsigned i = 0; frame->type == PACKBUF_I_RESULT && i < frame->items; i++) {
    packbuf_i_result result;
    expect(!packbuf_i_result_read(&reader, &result), "a result");
    t->status[result.index % 64] = (uint16_t)(1000 + result.status);
  }
  if (frame->type == PACKBUF_I_BYE) expect(!packbuf_i_bye_read(frame, body, &t->bye), "a bye");
  return NULL;
}

static uint8_t *talk_place(void *context, uint64_t *size) {
  talk *t = (talk *)context;
  if (*size > sizeof t->data - t->data_size) *size = 1;
  return t->data_size < sizeof t->data ? t->data + t->data_size : NULL;
}

static const char *talk_placed(void *context, uint64_t size) {
  ((talk *)context)->data_size += (size_t)size;
  return NULL;
}

static void talk_listen(talk *t) {
  while (t->link.sending) {
    struct iovec pieces[3];
    const size_t count = packbuf_i_link_pieces(&t->link, pieces, 3);
    for (size_t i = 0; i < count; i++) {
      const size_t half = (pieces[i].iov_len + 1) / 2;
      expect(!packbuf_i_intake_feed(&t->ear, (const uint8_t *)pieces[i].iov_base, half), "an answer");
      packbuf_i_link_went(&t->link, half);
      if (half < pieces[i].iov_len) break;
    }
  }
}

static void talk_say(talk *t, const void *bytes, size_t size) {
  packbuf_i_link_feed(&t->link, (const uint8_t *)bytes, size);
  talk_listen(t);
}

static void talk_frame_of(talk *t, const packbuf_i_wire_to *body, uint8_t *frame, unsigned type, uint64_t items,
                          uint64_t request, const char *payload, size_t payload_size) {
  const size_t size = packbuf_i_frame_end(frame, body, type, items, request, payload_size);
  uint8_t all[4096];
  memcpy(all, frame, size);
  memcpy(all + size, payload, payload_size);
  talk_say(t, all, size + payload_size);
}

static void talk_word(talk *t, unsigned type, uint64_t request) {
  uint8_t frame[64];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  talk_frame_of(t, &body, frame, type, 0, request, "", 0);
}

static void talk_hello(talk *t) {
  packbuf_i_hello hello;
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  memset(&hello, 0, sizeof hello);
  hello.least = hello.most = 1;
  packbuf_i_hello_write(&body, &hello);
  talk_frame_of(t, &body, frame, PACKBUF_I_HELLO, 0, 0, "", 0);
}

static void talk_begin(talk *t, uint64_t size, int greet) {
  static const packbuf_i_intake_taker taker = {talk_frame, talk_place, talk_placed};
  packbuf_store_options options = packbuf_default_store_options();
  memset(t, 0, sizeof *t);
  options.size = size;
  expect(!packbuf_store_open("local:", &options, &t->store, NULL), "store");
  t->service.store = t->store;
  (void)packbuf_i_lock_start(&t->service.lock);
  t->ear.taker = &taker;
  t->ear.context = t;
  t->ear.most_body = PACKBUF_I_FRAME_BODY;
  packbuf_i_link_start(&t->link, &t->service, &t->group);
  if (greet) talk_hello(t);
}

static void talk_end(talk *t) {
  packbuf_counters counters;
  memset(&counters, 0, sizeof counters);
  packbuf_i_link_end(&t->link);
  packbuf_i_intake_end(&t->ear);
  packbuf_i_lock_end(&t->service.lock);
  expect(
      !packbuf_store_counters(t->store, &counters, NULL) && !counters.slices && !counters.leases && !t->service.wanting,
      "something is left");
  expect(!packbuf_store_close(t->store, soon(), NULL), "close");
}

/* PUT of an item, of which `payload` follows. */
static void talk_put(talk *t, uint64_t request, uint64_t left, const char *key, uint64_t size, const char *payload) {
  uint8_t frame[512];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_item item = item_of(key);
  item.size = size;
  packbuf_i_wire_give64(&body, left);
  packbuf_i_put_item_write(&body, &item, payload[0] != 0, 0);
  talk_frame_of(t, &body, frame, PACKBUF_I_PUT, 1, request, payload, strlen(payload));
}

static void talk_data(talk *t, uint64_t request, uint16_t index, uint64_t offset, const char *payload) {
  uint8_t frame[64];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_data_write(&body, index, offset);
  talk_frame_of(t, &body, frame, PACKBUF_I_DATA, 1, request, payload, strlen(payload));
}

static int talk_refused(const talk *t, const char *why) {
  return t->link.state == PACKBUF_I_LINK_ENDING && t->bye.status == PACKBUF_PROTOCOL && strcmp(t->bye.text, why) == 0 &&
         !t->link.requests;
}

/* ---- the protocol ---- */

static void test_protocol(void) {
  static const char *const stray = "data of an item that was not granted";
  static talk t;
  begin("protocol");
  talk_begin(&t, MIB, 0);
  talk_word(&t, PACKBUF_I_PING, 1);
  expect(talk_refused(&t, "a connection begins with HELLO"), "no greeting: %s", t.bye.text);
  talk_end(&t);
  talk_begin(&t, MIB, 1);
  talk_word(&t, PACKBUF_I_PING, 7);
  expect(t.frames[PACKBUF_I_WELCOME] == 1 && t.frames[PACKBUF_I_PONG] == 1 && !t.frames[PACKBUF_I_BYE],
         "a greeting and a ping");
  talk_put(&t, 1, UINT64_MAX, "a", 10, "");
  expect(t.frames[PACKBUF_I_GRANT] == 1 && !t.frames[PACKBUF_I_RESULT], "a grant");
  talk_data(&t, 1, 0, 0, "hello");
  talk_data(&t, 9, 0, 0, "of no request");
  expect(!t.frames[PACKBUF_I_RESULT], "half of it");
  talk_data(&t, 1, 0, 5, "world");
  expect(t.frames[PACKBUF_I_RESULT] == 1 && t.status[0] == 1000 && !t.frames[PACKBUF_I_BYE], "all of it");
  talk_put(&t, 1, UINT64_MAX, "b", 10, "");
  talk_data(&t, 1, 0, 0, "hello");
  talk_word(&t, PACKBUF_I_CANCEL, 1);
  expect(t.frames[PACKBUF_I_RESULT] == 2 && t.status[0] == 1000 + PACKBUF_CANCELLED, "cancelled");
  talk_data(&t, 1, 0, 5, "dropped");
  talk_word(&t, PACKBUF_I_CANCEL, 1);
  expect(t.frames[PACKBUF_I_RESULT] == 2 && !t.frames[PACKBUF_I_BYE], "what comes late is dropped");
  { /* all of a put, and its CANCEL behind it, in one piece: what says OK is there */
    uint8_t all[512];
    packbuf_i_wire_to body = packbuf_i_frame_body(all, sizeof all);
    packbuf_item item = item_of("both");
    size_t size;
    item.size = 5;
    packbuf_i_wire_give64(&body, UINT64_MAX);
    packbuf_i_put_item_write(&body, &item, 1, 0);
    size = packbuf_i_frame_end(all, &body, PACKBUF_I_PUT, 1, 2, 5);
    memcpy(all + size, "hello", 5);
    body = packbuf_i_frame_body(all + size + 5, sizeof all - size - 5);
    size += 5 + packbuf_i_frame_end(all + size + 5, &body, PACKBUF_I_CANCEL, 0, 2, 0);
    talk_say(&t, all, size);
    expect(t.frames[PACKBUF_I_RESULT] == 3, "it is answered");
    expect((t.status[0] == 1000) == is_there(t.store, "both"), "answered with %d", t.status[0] - 1000);
  }
  talk_word(&t, PACKBUF_I_BYE, 0);
  expect(t.link.state == PACKBUF_I_LINK_ENDING || t.link.dead, "bye");
  talk_end(&t);
  for (int i = 0; i < 7; i++) {
    talk_begin(&t, MIB, 1);
    talk_put(&t, 1, UINT64_MAX, "a", 10, "");
    if (i == 0) talk_data(&t, 1, 0, 1, "x");
    if (i == 1) talk_data(&t, 1, 0, 0, "12345678901");
    if (i == 2) talk_data(&t, 1, 1, 0, "x");
    if (i < 3) expect(talk_refused(&t, stray), "stray data %d: %s", i, t.bye.text);
    if (i == 3) talk_put(&t, 1, 0, "b", 1, "");
    if (i == 3) expect(talk_refused(&t, "two requests of one number"), "one number twice: %s", t.bye.text);
    for (unsigned k = 2; i == 4 && k <= 17; k++) {
      expect(!t.frames[PACKBUF_I_BYE], "request %d", (int)k);
      talk_put(&t, k, UINT64_MAX, "b", 1, "");
    }
    if (i == 4) expect(talk_refused(&t, "too many requests under way"), "17 requests: %s", t.bye.text);
    if (i == 5) talk_word(&t, PACKBUF_I_PONG, 0), talk_say(&t, "PBT2....................................", 40);
    if (i == 5) expect(talk_refused(&t, "not a frame of this protocol"), "another magic: %s", t.bye.text);
    if (i == 6) talk_data(&t, 1, 0, 0, "123456789"), talk_data(&t, 1, 0, 9, "ab");
    if (i == 6) expect(talk_refused(&t, stray), "one byte too many: %s", t.bye.text);
    talk_end(&t);
  }
  { /* bytes that follow at once, without room for them; room comes while they are coming */
    uint8_t frame[512];
    packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
    packbuf_item item = item_of("new"), back = item_of("new");
    size_t size;
    talk_begin(&t, 65536, 1);
    expect(!put_bytes(t.store, "old", &t, 61440), "most of the store is full");
    item.size = 8192;
    packbuf_i_wire_give64(&body, UINT64_MAX);
    packbuf_i_put_item_write(&body, &item, 1, 0);
    size = packbuf_i_frame_end(frame, &body, PACKBUF_I_PUT, 1, 1, 8192);
    talk_say(&t, frame, size);
    for (unsigned i = 0; i < 8192 / 512; i++) {
      static char x[512];
      memset(x, 'x', sizeof x);
      if (i == 8) expect(!remove_key(t.store, "old"), "remove");
      if (i == 8) packbuf_i_link_tick(&t.link, packbuf_now());
      talk_say(&t, x, sizeof x);
    }
    expect(t.frames[PACKBUF_I_GRANT] == 1 && !t.frames[PACKBUF_I_RESULT], "what was dropped is granted");
    for (unsigned i = 0; i < 8; i++) {
      char y[1025];
      memset(y, (int)('a' + i), 1024);
      y[1024] = 0;
      talk_data(&t, 1, 0, i * 1024, y);
    }
    expect(t.frames[PACKBUF_I_RESULT] == 1 && t.status[0] == 1000, "and put");
    expect(!packbuf_batch_get(t.store, &back, 1, soon(), NULL) && back.lease.size == 8192 &&
               memcmp(back.lease.data, "aaaa", 4) == 0 && ((const char *)back.lease.data)[8191] == 'h',
           "as it was sent again");
    packbuf_lease_release(&back.lease);
    talk_end(&t);
  }
  { /* a request that is answered while its bytes are still coming */
    uint8_t frame[512];
    packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
    packbuf_item item = item_of("none");
    talk_begin(&t, 65536, 1);
    expect(!put_bytes(t.store, "old", &t, 61440), "most of the store is full");
    item.size = 8192;
    packbuf_i_wire_give64(&body, 0);
    packbuf_i_put_item_write(&body, &item, 1, 0);
    talk_say(&t, frame, packbuf_i_frame_end(frame, &body, PACKBUF_I_PUT, 1, 1, 8192));
    expect(t.frames[PACKBUF_I_RESULT] == 1 && t.status[0] == 1000 + PACKBUF_FULL && !t.link.requests, "FULL at once");
    for (unsigned i = 0; i < 8192 / 512; i++) {
      static const char x[512] = {0};
      talk_say(&t, x, sizeof x);
    }
    talk_word(&t, PACKBUF_I_PING, 3);
    expect(t.frames[PACKBUF_I_PONG] == 1 && !t.frames[PACKBUF_I_BYE], "its bytes are dropped");
    talk_end(&t);
  }
  { /* frames that are a server's */
    static const unsigned types[] = {PACKBUF_I_WELCOME, PACKBUF_I_PROVEN, PACKBUF_I_LISTED, PACKBUF_I_HELLO,
                                     PACKBUF_I_PROOF};
    for (unsigned i = 0; i < 5; i++) {
      talk_begin(&t, MIB, 1);
      talk_word(&t, types[i], 0);
      expect(talk_refused(&t, "a frame that is not a client's"), "type %d: %s", (int)types[i], t.bye.text);
      talk_end(&t);
    }
  }
  verdict("what breaks the rules of the protocol is refused, what comes late is dropped");
}

/* ---- clients that want all for themselves ---- */

static void test_hoarders(void) {
  static talk t;
  uint8_t frame[512], many[64 * 1024];
  char key[240];
  packbuf_i_list_ask ask;
  packbuf_i_wire_to body;
  packbuf_item item;
  uint64_t before;
  size_t size = 0, count;
  begin("hoarders");
  { /* pings are no progress: of what was granted, of what is not taken */
    talk_begin(&t, MIB, 1);
    talk_put(&t, 1, UINT64_MAX, "a", 10, "");
    before = packbuf_now();
    expect(!packbuf_i_link_holds(&t.link, before, 1000000000u), "it has only begun");
    packbuf_i_sleep_until(before + 5000000u);
    talk_word(&t, PACKBUF_I_PING, 1);
    expect(packbuf_i_link_holds(&t.link, packbuf_now(), 4000000u), "room for what does not come");
    talk_data(&t, 1, 0, 0, "x");
    expect(!packbuf_i_link_holds(&t.link, packbuf_now(), 1000000000u) && t.link.requests->moved > before + 4000000u,
           "a byte of it");
    talk_data(&t, 1, 0, 1, "123456789");
    expect(!packbuf_i_link_holds(&t.link, packbuf_now() + 1000000000u, 1), "it is put");
    body = packbuf_i_frame_body(frame, sizeof frame);
    item = item_of("a");
    packbuf_i_wire_give64(&body, 0);
    packbuf_i_get_item_write(&body, &item);
    size = packbuf_i_frame_end(frame, &body, PACKBUF_I_GET, 1, 2, 0);
    packbuf_i_link_feed(&t.link, frame, size);
    before = packbuf_now();
    packbuf_i_sleep_until(before + 5000000u);
    body = packbuf_i_frame_body(frame, sizeof frame);
    packbuf_i_link_feed(&t.link, frame, packbuf_i_frame_end(frame, &body, PACKBUF_I_PING, 0, 0, 0));
    expect(packbuf_i_link_holds(&t.link, packbuf_now(), 4000000u), "a lease on what is not taken");
    talk_listen(&t);
    expect(!packbuf_i_link_holds(&t.link, packbuf_now() + 1000000000u, 1) && t.data_size == 10, "it is taken");
    talk_end(&t);
  }
  { /* small things count as what is kept of them */
    talk_begin(&t, MIB, 1);
    body = packbuf_i_frame_body(frame, sizeof frame);
    size = packbuf_i_frame_end(frame, &body, PACKBUF_I_PING, 0, 0, 0);
    for (count = 0; count < 200000 && !packbuf_i_link_full(&t.link); count++) packbuf_i_link_feed(&t.link, frame, size);
    expect(packbuf_i_link_full(&t.link) && count * sizeof(packbuf_i_outgoing) < PACKBUF_I_QUEUED, "%d pings",
           (int)count);
    talk_listen(&t);
    expect(t.frames[PACKBUF_I_PONG] == count && !t.link.blocks && !t.link.queued, "all are answered");
    talk_end(&t);
  }
  { /* lists that are not read, as many as come in one piece */
    talk_begin(&t, 16 * MIB, 1);
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = 0;
    for (int i = 0; i < 500; i++) {
      key[sizeof key - 2] = (char)('0' + i % 10);
      key[sizeof key - 3] = (char)('0' + i / 10 % 10);
      key[sizeof key - 4] = (char)('0' + i / 100);
      expect(!put_bytes(t.store, key, "x", 1), "put");
    }
    memset(&ask, 0, sizeof ask);
    ask.most = 2048;
    body = packbuf_i_frame_body(frame, sizeof frame);
    packbuf_i_list_write(&body, &ask);
    size = packbuf_i_frame_end(frame, &body, PACKBUF_I_LIST, 0, 3, 0);
    for (count = 0; (count + 1) * size <= sizeof many; count++) memcpy(many + count * size, frame, size);
    packbuf_i_link_feed(&t.link, many, count * size);
    expect(t.link.queued < PACKBUF_I_QUEUED + MIB + count * 128, "%d lists are %d bytes", (int)count,
           (int)t.link.queued);
    talk_listen(&t);
    expect(t.frames[PACKBUF_I_LISTED] == count && !t.frames[PACKBUF_I_BYE], "all are answered");
    talk_end(&t);
  }
  { /* a quota is of pages, as room is; and of those who know the secret */
    talk_begin(&t, MIB, 0);
    t.service.quota = 8192;
    talk_hello(&t);
    for (unsigned i = 0; i < 3; i++) talk_put(&t, i, 0, i == 0 ? "a" : i == 1 ? "b" : "c", 1, "x");
    expect(t.frames[PACKBUF_I_RESULT] == 3 && t.status[0] == 1000 + PACKBUF_QUOTA, "three bytes of two pages");
    talk_end(&t);
    talk_begin(&t, MIB, 0);
    t.service.quota = 8192;
    memcpy(t.service.secret, "secret", t.service.secret_size = 6);
    talk_hello(&t);
    expect(t.frames[PACKBUF_I_WELCOME] == 1 && !t.service.accounts, "an account before the proof");
    talk_end(&t);
  }
  verdict("clients that hold what they do not use, ask for more than they read, or put by the byte");
}

/* ---- what bytes of a stranger cost ---- */

static uint64_t heap_asked; /* bytes that were asked for, in all */

static void *heap_count(void *context, void *memory, size_t old_size, size_t new_size) {
  (void)context;
  if (new_size > old_size) heap_asked += new_size - old_size;
  if (new_size) return realloc(memory, new_size);
  free(memory);
  return NULL;
}

/* What is claimed takes no room before it comes, and what came none when it was answered. */
static void test_bodies(void) {
  static talk t;
  static uint8_t frame[PACKBUF_I_FRAME_HEADER + PACKBUF_I_FRAME_BODY];
  packbuf_item item = item_of("k");
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  size_t size;
  begin("bodies");
  packbuf_i_wire_give64(&body, 0);
  packbuf_i_name_item_write(&body, &item, 0);
  body.at = frame + sizeof frame; /* what is longer than it need be is fine */
  size = packbuf_i_frame_end(frame, &body, PACKBUF_I_STAT, 1, 1, 0);
  expect(size == sizeof frame, "the longest body that there is");
  talk_begin(&t, MIB, 1);
  talk_say(&t, frame, PACKBUF_I_FRAME_HEADER);
  expect(t.link.intake.body_room < 4096, "%d bytes for a claim", (int)t.link.intake.body_room);
  for (size_t at = PACKBUF_I_FRAME_HEADER; at < size; at += 1000) {
    const size_t have = at - PACKBUF_I_FRAME_HEADER;
    talk_say(&t, frame + at, size - at < 1000 ? size - at : 1000);
    expect(t.link.intake.body_room < 4096 + 2 * have, "%d bytes for %d", (int)t.link.intake.body_room, (int)have);
  }
  expect(t.frames[PACKBUF_I_RESULT] == 1 && t.status[0] == 1000 + PACKBUF_NOT_FOUND, "its answer");
  expect(t.link.intake.body_room <= PACKBUF_I_INTAKE_KEPT, "%d bytes are kept", (int)t.link.intake.body_room);
  talk_end(&t);
  verdict("a body takes the room of what has come of it, and gives it back");
}

static size_t list_frame(uint8_t *frame, size_t room, uint32_t most) {
  packbuf_i_list_ask ask;
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, room);
  memset(&ask, 0, sizeof ask);
  ask.most = most;
  packbuf_i_list_write(&body, &ask);
  return packbuf_i_frame_end(frame, &body, PACKBUF_I_LIST, 0, 3, 0);
}

/* Answers that nobody reads: of one connection, and of many. */
static void test_crowd(void) {
  enum { OBJECTS = 300 };
  static talk t;
  uint8_t frame[256];
  const size_t size = list_frame(frame, sizeof frame, 2048);
  char key[16];
  uint64_t before;
  begin("crowd");
  talk_begin(&t, 4 * MIB, 1);
  t.service.allocator.resize = heap_count;
  for (int i = 0; i < OBJECTS; i++) {
    snprintf(key, sizeof key, "k%d", i);
    expect(!put_bytes(t.store, key, "x", 1), "put");
  }
  while (!packbuf_i_link_full(&t.link)) packbuf_i_link_feed(&t.link, frame, size);
  expect(t.link.blocks >= PACKBUF_I_QUEUED && t.service.blocks == t.link.blocks, "what is not read is counted");
  before = heap_asked;
  packbuf_i_link_feed(&t.link, frame, size);
  expect(heap_asked - before < 4096, "%d bytes of the heap to refuse a list", (int)(heap_asked - before));
  talk_listen(&t);
  expect(!t.service.blocks && !packbuf_i_link_full(&t.link), "it was read");
  t.service.blocks = PACKBUF_I_CROWD; /* others do not read */
  before = heap_asked;
  packbuf_i_link_feed(&t.link, frame, size);
  expect(heap_asked - before < 65536, "%d bytes of the heap for a list in a crowd", (int)(heap_asked - before));
  while (!packbuf_i_link_full(&t.link)) packbuf_i_link_feed(&t.link, frame, size);
  expect(t.link.blocks < 2 * PACKBUF_I_CROWD_SHARE, "%d bytes are its share", (int)t.link.blocks);
  t.service.blocks -= PACKBUF_I_CROWD;
  talk_listen(&t);
  expect(!t.service.blocks && !t.frames[PACKBUF_I_BYE], "all is read, and nobody was cut off");
  talk_end(&t);
  verdict("answers that nobody reads take little room each where many take it");
}

/* A byte now and then is no progress. */
static void test_drips(void) {
  enum { SIZE = 300 };
  static talk t;
  static char bytes[SIZE];
  uint8_t frame[256];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_item item = item_of("there");
  uint64_t begun;
  begin("drips");
  memset(bytes, 'x', sizeof bytes);
  talk_begin(&t, MIB, 1);
  t.service.pace = 100;
  talk_put(&t, 1, UINT64_MAX, "slow", SIZE, "");
  begun = t.link.requests->moved;
  for (uint16_t at = 0; at < 99; at++) talk_data(&t, 1, 0, at, "x");
  expect(t.link.requests->moved == begun && packbuf_i_link_holds(&t.link, begun + 2, 1), "99 bytes are no progress");
  packbuf_i_sleep_until(begun + 1000000u);
  talk_data(&t, 1, 0, 99, "x");
  expect(t.link.requests->moved > begun && !packbuf_i_link_holds(&t.link, t.link.requests->moved, 1), "100 are");
  bytes[SIZE - 100] = 0;
  talk_data(&t, 1, 0, 100, bytes);
  expect(t.status[0] == 1000 && is_there(t.store, "slow"), "all of it");
  bytes[SIZE - 100] = 'x';
  expect(!put_bytes(t.store, "there", bytes, SIZE), "put");
  packbuf_i_wire_give64(&body, 0);
  packbuf_i_get_item_write(&body, &item);
  packbuf_i_link_feed(&t.link, frame, packbuf_i_frame_end(frame, &body, PACKBUF_I_GET, 1, 2, 0));
  begun = t.link.taken;
  packbuf_i_sleep_until(begun + 1000000u);
  packbuf_i_link_went(&t.link, 1);
  expect(t.link.taken == begun && packbuf_i_link_holds(&t.link, begun + 2, 1), "a byte that it took");
  packbuf_i_link_went(&t.link, 99);
  expect(t.link.taken > begun, "and a hundred");
  talk_end(&t);
  verdict("who sends or takes a byte now and then holds nothing for long");
}

int main(void) {
  test_protocol();
  test_hoarders();
  test_bodies();
  test_crowd();
  test_drips();
  return tap_plan_done();
}
