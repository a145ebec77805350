/* Fuzz target: any bytes as what a client says to a server, without a socket: frames whose checksums are put right, after a greeting that is (or is not) as it
 * should be. What the server answers is read as a client reads it: whole frames, each item answered once, no more data than was announced. Whatever was said,
 * no lease and no slice is left, and each object that is there is whole.
 * May use: packbuf_transport.h and its insides. Must not know: how the local store does it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "tests/internals.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds) {
  if (!holds) abort();
}

/* ---- who hears the answers ---- */

static uint8_t sink[4096];
static unsigned welcomes;
static uint64_t announced, came;
static volatile unsigned touched;

static const char *hear_frame(void *context, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  packbuf_i_welcome welcome;
  packbuf_i_result result;
  packbuf_i_listing listing;
  packbuf_listed listed;
  packbuf_i_bye bye;
  uint64_t offset;
  uint16_t index;
  (void)context;
  switch (frame->type) {
    case PACKBUF_I_WELCOME:
      demand(!packbuf_i_welcome_read(frame, body, &welcome));
      welcomes++;
      break;
    case PACKBUF_I_RESULT:
      for (unsigned i = 0; i < frame->items; i++) {
        demand(!packbuf_i_result_read(&reader, &result));
        announced += result.follows;
      }
      break;
    case PACKBUF_I_DATA: demand(!packbuf_i_data_read(frame, body, &index, &offset)); break;
    case PACKBUF_I_LISTED:
      demand(!packbuf_i_listing_read(&reader, &listing));
      for (unsigned i = 0; i < frame->items; i++) demand(!packbuf_i_listed_read(&reader, &listed));
      break;
    case PACKBUF_I_GRANT:
      for (unsigned i = 0; i < frame->items; i++) touched += packbuf_i_wire_take16(&reader);
      demand(reader.ok);
      break;
    case PACKBUF_I_BYE: demand(!packbuf_i_bye_read(frame, body, &bye)); break;
    default: demand(frame->type == PACKBUF_I_PONG || frame->type == PACKBUF_I_PROVEN || frame->type == PACKBUF_I_PING); break;
  }
  return NULL;
}

static uint8_t *hear_place(void *context, uint64_t *size) {
  (void)context;
  if (*size > sizeof sink) *size = sizeof sink;
  return sink;
}

static const char *hear_placed(void *context, uint64_t size) {
  (void)context;
  came += size;
  return NULL;
}

static const packbuf_i_intake_taker hearer = {hear_frame, hear_place, hear_placed};

/* Takes up to `most` bytes of what the server has to say. */
static void listen_to(packbuf_i_link *link, packbuf_i_intake *ear, uint64_t most) {
  while (link->sending && most) {
    struct iovec pieces[7];
    const size_t count = packbuf_i_link_pieces(link, pieces, 7);
    uint64_t gone = 0;
    demand(count > 0);
    for (size_t i = 0; i < count && most; i++) {
      const size_t some = pieces[i].iov_len < most ? pieces[i].iov_len : (size_t)most;
      demand(packbuf_i_intake_feed(ear, (const uint8_t *)pieces[i].iov_base, some) == NULL);
      gone += some;
      most -= some;
    }
    packbuf_i_link_went(link, gone);
  }
  demand(link->sending || link->queued == 0);
}

/* ---- what is said ---- */

static void say(packbuf_i_link *link, packbuf_i_intake *ear, uint8_t *frame, const packbuf_i_wire_to *body, unsigned type) {
  packbuf_i_link_feed(link, frame, packbuf_i_frame_end(frame, body, type, 0, 0, 0));
  listen_to(link, ear, UINT64_MAX);
}

static void greet(packbuf_i_link *link, packbuf_i_intake *ear, packbuf_i_service *service, uint64_t quota) {
  uint8_t frame[256], proof[32];
  packbuf_i_hello hello;
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  memset(&hello, 0, sizeof hello);
  hello.least = hello.most = 1;
  hello.quota = quota;
  packbuf_i_hello_write(&body, &hello);
  say(link, ear, frame, &body, PACKBUF_I_HELLO);
  demand(welcomes == 1);
  if (!service->secret_size) return;
  packbuf_i_proof_make(service->secret, service->secret_size, 'C', link->hello, link->hello_size, link->welcome, link->welcome_size, proof);
  body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_wire_give(&body, proof, sizeof proof);
  say(link, ear, frame, &body, PACKBUF_I_PROOF);
  demand(link->state == PACKBUF_I_LINK_OPEN);
}

/* Puts magic and checksums of the frame at `at` right; where the next one begins. */
static size_t repair(uint8_t *bytes, size_t at, size_t size) {
  uint8_t *frame = bytes + at;
  uint64_t left = size - at - PACKBUF_I_FRAME_HEADER, body = packbuf_i_load32(frame + 16), payload = packbuf_i_load64(frame + 24);
  packbuf_i_store32(frame, PACKBUF_I_FRAME_MAGIC);
  frame[5] = 0;
  packbuf_i_store32(frame + 32, 0);
  if (body > left) body = left;
  packbuf_i_store32(frame + 16, (uint32_t)body);
  packbuf_i_store32(frame + 20, packbuf_i_wire_crc(frame + PACKBUF_I_FRAME_HEADER, (size_t)body));
  packbuf_i_store32(frame + 36, packbuf_i_wire_crc(frame, 36));
  left -= body;
  return at + PACKBUF_I_FRAME_HEADER + (size_t)body + (size_t)(payload < left ? payload : left);
}

static void speak(packbuf_i_link *link, packbuf_i_intake *ear, const uint8_t *data, size_t size, unsigned how) {
  uint8_t *bytes = (uint8_t *)malloc(size ? size : 1);
  const size_t piece = how & 7 ? (size_t)(how & 7) * 13 : size + 1;
  size_t at = 0, fed = 0;
  demand(bytes != NULL);
  memcpy(bytes, data, size);
  if (how & 8)
    while (at + PACKBUF_I_FRAME_HEADER <= size) at = repair(bytes, at, size);
  while (fed < size && !link->dead) {
    const size_t some = size - fed < piece ? size - fed : piece;
    packbuf_i_link_feed(link, bytes + fed, some);
    fed += some;
    if (how & 16) listen_to(link, ear, 50);
    if (how & 32) packbuf_i_link_tick(link, packbuf_now());
  }
  free(bytes);
}

/* The objects are whole, and nothing but objects takes memory. */
static void look(packbuf_store *store) {
  packbuf_listed listed[64];
  packbuf_counters counters;
  uint64_t cursor = 0, count;
  memset(&counters, 0, sizeof counters);
  demand(!packbuf_store_counters(store, &counters, NULL) && counters.leases == 0 && counters.slices == 0);
  do {
    demand(!packbuf_store_list(store, NULL, &cursor, listed, 64, &count, PACKBUF_NO_WAIT, NULL));
    for (uint64_t i = 0; i < count; i++) {
      packbuf_item item;
      memset(&item, 0, sizeof item);
      item.key = listed[i].key;
      if (packbuf_batch_get(store, &item, 1, PACKBUF_NO_WAIT, NULL) == PACKBUF_OK) demand(item.lease.size == listed[i].stat.length);
      packbuf_lease_release(&item.lease);
    }
  } while (cursor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static packbuf_i_group group;
  packbuf_i_service *service;
  packbuf_i_link *link;
  packbuf_i_intake ear;
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_store *store = NULL;
  unsigned how;
  if (size < 2) return 0;
  how = data[0];
  options.size = 1 << 18;
  options.objects = 32;
  demand(!packbuf_store_open("local:", &options, &store, NULL));
  service = (packbuf_i_service *)calloc(1, sizeof *service);
  link = (packbuf_i_link *)malloc(sizeof *link);
  demand(service && link && packbuf_i_lock_start(&service->lock));
  service->store = store;
  service->lease_ns = 1000000000u;
  service->capabilities = 0x3FF;
  if (how & 64) {
    memcpy(service->secret, "secret", 6);
    service->secret_size = 6;
  }
  welcomes = 0;
  announced = came = 0;
  memset(&ear, 0, sizeof ear);
  ear.taker = &hearer;
  ear.most_body = PACKBUF_I_FRAME_BODY;
  packbuf_i_link_start(link, service, &group);
  if (!(how & 128)) greet(link, &ear, service, data[1] & 1 ? 100000 : 0);
  speak(link, &ear, data + 2, size - 2, how);
  packbuf_i_link_tick(link, PACKBUF_FOREVER - 1);
  if (data[1] & 2) {
    listen_to(link, &ear, UINT64_MAX);
    demand(announced == came && !ear.payload && !ear.head_have);
  }
  packbuf_i_link_end(link);
  demand(service->wanting == 0 && service->counters.leases == 0 && !service->accounts);
  packbuf_i_intake_end(&ear);
  packbuf_i_lock_end(&service->lock);
  free(link);
  free(service);
  look(store);
  demand(!packbuf_store_close(store, PACKBUF_NO_WAIT, NULL));
  return 0;
}
