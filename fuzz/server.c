/* Fuzz target: any bytes as what a client says to a server, without a socket: frames whose checksums are put right, after a greeting that is (or is not) as it
 * should be; with a device or without, whose READs end as their keys say. What the server answers is read as a client reads it: whole frames, each item answered once, no more data than was announced. Whatever was said,
 * no lease and no slice is left, each object that is there is whole, and no READ went anywhere but into room that was reserved for it.
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

/* ---- a device: READs end when the server looks, well where the key is even ---- */

enum { UNDER_WAY = 1024 };

static struct {
  packbuf_i_nic nic;
  packbuf_i_ibv_context context;
  packbuf_i_ibv_channel channel;
  packbuf_i_ibv_cq cq;
  packbuf_i_ibv_qp pairs[PACKBUF_I_PAIRS_MOST];
  packbuf_i_ibv_wc done[UNDER_WAY];
  unsigned from, to, used, regions, broken;
  uint32_t refuses; /* the next so many things to be made are not */
} device;

static int device_refuses(void) { return device.refuses && --device.refuses == 0; }

static packbuf_i_ibv_mr *device_reg_mr(packbuf_i_ibv_pd *pd, void *address, size_t size, int access) {
  packbuf_i_ibv_mr *mr = device_refuses() ? NULL : (packbuf_i_ibv_mr *)calloc(1, sizeof *mr);
  (void)pd;
  demand(!(access & ~(PACKBUF_I_IBV_LOCAL_WRITE | PACKBUF_I_IBV_REMOTE_READ)));
  if (!mr) return NULL;
  mr->addr = address;
  mr->length = size;
  mr->lkey = mr->rkey = ++device.regions;
  return mr;
}
static int device_dereg_mr(packbuf_i_ibv_mr *mr) {
  free(mr);
  return 0;
}
static packbuf_i_ibv_cq *device_create_cq(packbuf_i_ibv_context *context, int entries, void *user, packbuf_i_ibv_channel *channel, int vector) {
  (void)context, (void)entries, (void)vector;
  device.from = device.to = device.broken = 0;
  device.cq.cq_context = user;
  device.cq.channel = channel;
  return device_refuses() ? NULL : &device.cq;
}
static int device_destroy_cq(packbuf_i_ibv_cq *cq) { return (void)cq, 0; }
static packbuf_i_ibv_qp *device_create_qp(packbuf_i_ibv_pd *pd, packbuf_i_ibv_qp_init_attr *init) {
  (void)pd, (void)init;
  demand(device.used < PACKBUF_I_PAIRS_MOST);
  return device_refuses() ? NULL : &device.pairs[device.used++];
}
static int device_destroy_qp(packbuf_i_ibv_qp *qp) {
  (void)qp;
  device.used--;
  device.from = device.to = 0;
  return 0;
}
static int device_modify_qp(packbuf_i_ibv_qp *qp, packbuf_i_ibv_qp_attr *attr, int mask) { return (void)qp, (void)attr, (void)mask, device_refuses(); }
static int device_req_notify_cq(packbuf_i_ibv_cq *cq, int solicited_only) { return (void)cq, (void)solicited_only, 0; }

static int device_poll_cq(packbuf_i_ibv_cq *cq, int count, packbuf_i_ibv_wc *wc) {
  (void)cq, (void)count;
  if (device.from == device.to) return 0;
  *wc = device.done[device.from++];
  return 1;
}

static packbuf_driver_memory device_memory;

static int device_post_send(packbuf_i_ibv_qp *qp, packbuf_i_ibv_send_wr *wr, packbuf_i_ibv_send_wr **bad) {
  (void)qp;
  for (; wr; wr = wr->next) {
    const uint64_t at = wr->sg_list->addr - (uint64_t)(uintptr_t)device_memory.writable;
    *bad = wr;
    if (wr->rkey % 16 == 15) return 12; /* the device takes no more */
    demand(wr->opcode == PACKBUF_I_IBV_RDMA_READ && at < device_memory.size && wr->sg_list->length && wr->sg_list->length <= device_memory.size - at);
    if (wr->rkey & 1) device.broken = 1;
    if (!device.broken) memset((void *)(uintptr_t)wr->sg_list->addr, 0x5A, wr->sg_list->length);
    if (!device.broken && !(wr->send_flags & PACKBUF_I_IBV_SIGNALED)) continue;
    demand(device.to < UNDER_WAY);
    memset(&device.done[device.to], 0, sizeof *device.done);
    device.done[device.to].wr_id = wr->wr_id;
    device.done[device.to++].status = !device.broken ? PACKBUF_I_IBV_DONE : wr->rkey & 1 ? PACKBUF_I_IBV_REM_ACCESS : PACKBUF_I_IBV_FLUSHED;
  }
  return 0;
}

/* Gives a server the device. */
static void device_begin(packbuf_i_service *service, packbuf_store *store, unsigned refuses) {
  packbuf_i_ibv *ibv = &device.nic.ibv;
  memset(&device, 0, sizeof device);
  device.nic.context = &device.context;
  device.nic.mtu = device.nic.reads = 1;
  device.nic.message = 1000; /* so that READs of one item are many */
  device.context.poll_cq = device_poll_cq;
  device.context.req_notify_cq = device_req_notify_cq;
  device.context.post_send = device_post_send;
  ibv->reg_mr = device_reg_mr;
  ibv->dereg_mr = device_dereg_mr;
  ibv->create_cq = device_create_cq;
  ibv->destroy_cq = device_destroy_cq;
  ibv->create_qp = device_create_qp;
  ibv->modify_qp = device_modify_qp;
  ibv->destroy_qp = device_destroy_qp;
  demand(!packbuf_i_store_memory(store, &service->memory, NULL));
  device_memory = service->memory;
  demand(!packbuf_i_plot_open(&device.nic, service->memory.writable, service->memory.size, PACKBUF_I_IBV_LOCAL_WRITE | PACKBUF_I_IBV_REMOTE_READ, &service->slab, NULL));
  device.refuses = refuses;
  service->nic = &device.nic;
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
  packbuf_i_located located;
  packbuf_i_pairing pairing;
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
    case PACKBUF_I_LOCATED:
      for (unsigned i = 0; i < frame->items; i++) {
        demand(!packbuf_i_located_read(&reader, &located));
        demand(located.address - (uint64_t)(uintptr_t)device_memory.writable <= device_memory.size - located.stat.length && located.word < PACKBUF_I_WORDS);
      }
      break;
    case PACKBUF_I_PAIRING: demand(!packbuf_i_pairing_read(frame, body, &pairing)); break;
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
  hello.features = 1;
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
    if (how & 16) packbuf_i_link_pulled(link);
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
  if (data[1] & 4) device_begin(service, store, data[1] >> 3);
  packbuf_i_link_start(link, service, &group);
  link->channel = &device.channel;
  if (!(how & 128)) greet(link, &ear, service, data[1] & 1 ? 100000 : 0);
  speak(link, &ear, data + 2, size - 2, how);
  packbuf_i_link_pulled(link);
  packbuf_i_link_tick(link, PACKBUF_FOREVER - 1);
  if (data[1] & 2) {
    listen_to(link, &ear, UINT64_MAX);
    demand(announced == came && !ear.payload && !ear.head_have);
  }
  packbuf_i_link_end(link);
  demand(device.used == 0);
  if (service->nic) packbuf_i_plot_close(service->nic, &service->slab);
  demand(service->wanting == 0 && service->counters.leases == 0 && !service->accounts);
  packbuf_i_intake_end(&ear);
  packbuf_i_lock_end(&service->lock);
  free(link);
  free(service);
  look(store);
  demand(!packbuf_store_close(store, PACKBUF_NO_WAIT, NULL));
  return 0;
}
