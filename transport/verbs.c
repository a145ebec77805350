/* transport/verbs.c: what both sides do with RDMA: a device, memory that it may read or write, and a connection's queue
 * pairs, which take chains of READs and tell how they ended. Only READs are ever posted, and no memory is registered so
 * that another machine could write it.
 * May use: system, text, frames (what one side tells the other), verbs_abi. Must not know: sockets, stores, which side
 * this is. */
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum {
  PACKBUF_I_PAIRS = 2,        /* queue pairs of a connection */
  PACKBUF_I_CHAIN = 256,      /* READs of a chain; a queue has room for two */
  PACKBUF_I_READS = 16,       /* of a queue pair at a time, as far as the device goes along */
  PACKBUF_I_ACK_TIMEOUT = 14, /* 4.096 us * 2^14 = 67 ms */
  PACKBUF_I_RETRIES = 6,      /* 470 ms until a peer that says nothing is given up. 7 would mean for ever to some */
  PACKBUF_I_WORDS = 512       /* lease words of a connection: a page */
};
#define PACKBUF_I_MESSAGE ((uint64_t)1 << 30)      /* the most bytes of one READ */
#define PACKBUF_I_CHAIN_BYTES ((uint64_t)64 << 20) /* and of one chain, beyond its first READ: an end shows progress \
                                                    */

/* A device, one port of it, and the address that packets have there. */
typedef struct packbuf_i_nic {
  packbuf_allocator allocator;
  packbuf_i_ibv ibv;
  packbuf_i_ibv_context *context;
  packbuf_i_ibv_pd *pd;
  packbuf_i_ibv_gid gid;
  unsigned score; /* how good a choice it is; 0: none */
  int gid_index, mtu, reads;
  uint16_t lid;
  uint8_t port;
  uint64_t message;
  char name[64];
} packbuf_i_nic;

/* Memory that a device may use. */
typedef struct packbuf_i_plot {
  packbuf_i_ibv_mr *mr; /* NULL: it may not after all */
  uint64_t start, end;
} packbuf_i_plot;

/* One READ of a chain. */
typedef struct packbuf_i_fetch {
  void *to;
  uint64_t from;
  uint32_t lkey, rkey, size;
  void *user; /* the one that it is for */
} packbuf_i_fetch;

typedef struct packbuf_i_queue_pair {
  packbuf_i_ibv_qp *qp;
  uint32_t psn, count, posted; /* READs of the chain; posted: it is under way */
  uint64_t bytes;
  packbuf_i_fetch chain[PACKBUF_I_CHAIN];
} packbuf_i_queue_pair;

typedef struct packbuf_i_pairs {
  packbuf_i_nic *nic;
  packbuf_i_ibv_channel *channel;
  packbuf_i_ibv_cq *cq;
  unsigned count, busy; /* busy: chains under way */
  uint64_t signalled;   /* completions that were asked for */
  int own_channel;
  packbuf_i_queue_pair *pairs; /* NULL: there are none */
} packbuf_i_pairs;

/* ---- a device ---- */

/* "device[:port[:gid index]]", taken apart. Numbers 0 and -1: any. */
typedef struct packbuf_i_nic_wanted {
  char name[64]; /* "": any */
  unsigned port;
  int gid_index;
  uint8_t address[16]; /* that the GID should have; zero: any */
} packbuf_i_nic_wanted;

/* The number between two colons of `text`, moved behind it. 0: it is none. */
static int packbuf_i_nic_number(const char **text, uint64_t most, uint64_t *number) {
  const char *end = strchr(*text, ':');
  const size_t size = end ? (size_t)(end - *text) : strlen(*text);
  if (!packbuf_i_parse_decimal(*text, size, most, number)) return 0;
  *text += size + (end != NULL);
  return 1;
}

static int packbuf_i_nic_parse(const char *text, packbuf_i_nic_wanted *wanted) {
  const char *colon = strchr(text, ':');
  const size_t size = colon ? (size_t)(colon - text) : strlen(text);
  uint64_t number;
  wanted->gid_index = -1;
  if (size >= sizeof wanted->name) return 0;
  memcpy(wanted->name, text, size);
  text += size + (colon != NULL);
  if (colon) {
    if (!packbuf_i_nic_number(&text, 255, &number) || !number) return 0;
    wanted->port = (unsigned)number;
  }
  if (colon && *text) {
    if (!packbuf_i_nic_number(&text, 255, &number)) return 0;
    wanted->gid_index = (int)number;
  }
  return *text == 0;
}

/* The 16 bytes that a GID has which stands for an address. */
static void packbuf_i_nic_address(const struct sockaddr *address, uint8_t gid[16]) {
  memset(gid, 0, 16);
  if (address->sa_family == AF_INET) {
    gid[10] = gid[11] = 0xFF;
    memcpy(gid + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
  } else if (address->sa_family == AF_INET6)
    memcpy(gid, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
}

/* First line of /sys/class/infiniband/DEVICE/ports/PORT/REST; "" when there is none. */
static void packbuf_i_nic_sysfs(const char *device, unsigned port, const char *rest, char *text, size_t room) {
  char path[200];
  packbuf_i_line line = packbuf_i_line_in(path, sizeof path);
  ssize_t got;
  int file;
  text[0] = 0;
  packbuf_i_line_text(&line, "/sys/class/infiniband/");
  packbuf_i_line_text(&line, device);
  packbuf_i_line_text(&line, "/ports/");
  packbuf_i_line_number(&line, port);
  packbuf_i_line_text(&line, rest);
  if (line.length >= sizeof path) return;
  path[line.length] = 0;
  file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  got = read(file, text, room - 1);
  (void)close(file);
  text[got > 0 ? got : 0] = 0;
}

/* How good a GID is: 0 not at all; the address that was wanted is best, IPv4 before other addresses of RoCE v2. */
static unsigned packbuf_i_nic_judge(const char *device, unsigned port, int index, int ethernet,
                                    const packbuf_i_ibv_gid *gid, const packbuf_i_nic_wanted *wanted) {
  static const uint8_t none[16] = {0}, mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  char rest[32], type[32];
  packbuf_i_line line = packbuf_i_line_in(rest, sizeof rest);
  if (memcmp(gid->raw, none, 16) == 0) return 0;
  if (!ethernet) return 1;
  packbuf_i_line_text(&line, "/gid_attrs/types/");
  packbuf_i_line_number(&line, (uint64_t)index);
  rest[line.length] = 0;
  packbuf_i_nic_sysfs(device, port, rest, type, sizeof type);
  if (!strstr(type, "v2")) return 0;
  if (memcmp(gid->raw, wanted->address, 16) == 0) return 4;
  return memcmp(gid->raw, mapped, 12) == 0 ? 3 : 2;
}

/* Takes the best GID of a port, when it is better than what there is. */
static void packbuf_i_nic_look_at_port(packbuf_i_nic *nic, packbuf_i_ibv_context *context, const char *device,
                                       unsigned port, const packbuf_i_nic_wanted *wanted, const char **why) {
  packbuf_i_ibv_port_attr attr;
  char layer[32];
  int ethernet;
  memset(&attr, 0, sizeof attr);
  if (nic->ibv.query_port(context, (uint8_t)port, &attr) != 0) return;
  if (attr.state != PACKBUF_I_IBV_PORT_ACTIVE) {
    *why = "no port of an RDMA device is active";
    return;
  }
  packbuf_i_nic_sysfs(device, port, "/link_layer", layer, sizeof layer);
  ethernet = layer[0] == 'E';
  *why = "no port of an RDMA device has a GID of RoCE v2";
  for (int index = 0; index < attr.gid_tbl_len && index < 256; index++) {
    packbuf_i_ibv_gid gid;
    unsigned score;
    if (wanted->gid_index >= 0 && index != wanted->gid_index) continue;
    if (nic->ibv.query_gid(context, (uint8_t)port, index, &gid) != 0) continue;
    score = packbuf_i_nic_judge(device, port, index, ethernet, &gid, wanted);
    if (score <= nic->score) continue;
    nic->score = score;
    nic->context = context;
    nic->gid = gid;
    nic->gid_index = index;
    nic->port = (uint8_t)port;
    nic->lid = attr.lid;
    nic->mtu = attr.active_mtu;
    nic->message = attr.max_msg_sz && attr.max_msg_sz < PACKBUF_I_MESSAGE ? attr.max_msg_sz : PACKBUF_I_MESSAGE;
  }
}

/* Opens devices, and keeps the best. */
static const char *packbuf_i_nic_choose(packbuf_i_nic *nic, const packbuf_i_nic_wanted *wanted) {
  int count = 0;
  packbuf_i_ibv_device **list = nic->ibv.get_device_list(&count);
  const char *why = wanted->name[0] ? "no RDMA device has that name" : "there is no RDMA device";
  for (int i = 0; list && i < count; i++) {
    const char *name = nic->ibv.get_device_name(list[i]);
    packbuf_i_ibv_context *const before = nic->context, *context;
    packbuf_i_ibv_device_attr attr;
    if (wanted->name[0] && strcmp(name, wanted->name) != 0) continue;
    context = nic->ibv.open_device(list[i]);
    if (!context) {
      why = "an RDMA device cannot be opened";
      continue;
    }
    memset(&attr, 0, sizeof attr);
    if (nic->ibv.query_device(context, &attr) == 0)
      for (unsigned port = 1; port <= attr.phys_port_cnt; port++)
        if (!wanted->port || port == wanted->port) packbuf_i_nic_look_at_port(nic, context, name, port, wanted, &why);
    if (nic->context == context) {
      if (before) (void)nic->ibv.close_device(before);
      nic->reads = attr.max_qp_rd_atom < PACKBUF_I_READS ? attr.max_qp_rd_atom : PACKBUF_I_READS;
      if (attr.max_qp_init_rd_atom < nic->reads) nic->reads = attr.max_qp_init_rd_atom;
      if (nic->reads < 1) nic->reads = 1;
      for (size_t k = 0; k + 1 < sizeof nic->name && name[k]; k++) nic->name[k] = name[k], nic->name[k + 1] = 0;
    } else (void)nic->ibv.close_device(context);
  }
  if (list) nic->ibv.free_device_list(list);
  return nic->context ? NULL : why;
}

static void packbuf_i_nic_close(packbuf_i_nic *nic) {
  const packbuf_allocator allocator = nic->allocator;
  if (nic->pd) (void)nic->ibv.dealloc_pd(nic->pd);
  if (nic->context) (void)nic->ibv.close_device(nic->context);
  packbuf_i_ibv_unload(&nic->ibv);
  (void)packbuf_i_heap(&allocator, nic, sizeof *nic, 0);
}

/* Opens a device. wanted: "device[:port[:gid index]]", or NULL: that which has the address `local` (NULL: any), else
 * the first that is up. Errors: INVALID_ARGUMENT; UNAVAILABLE: no library, no such device; SYSTEM. */
static packbuf_status packbuf_i_nic_open(const packbuf_allocator *allocator, const char *wanted,
                                         const struct sockaddr *local, packbuf_i_nic **nic, packbuf_error *error) {
  packbuf_i_nic_wanted asked;
  packbuf_i_nic *made;
  packbuf_status status;
  const char *why;
  memset(&asked, 0, sizeof asked);
  if (!packbuf_i_nic_parse(wanted ? wanted : "", &asked))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a device is named DEVICE[:PORT[:GID INDEX]]");
  if (local) packbuf_i_nic_address(local, asked.address);
  made = (packbuf_i_nic *)packbuf_i_heap(allocator, NULL, 0, sizeof *made);
  if (!made) return packbuf_i_no_memory(error);
  made->allocator = *allocator;
  status = packbuf_i_ibv_load(&made->ibv, error);
  if (!status) {
    why = packbuf_i_nic_choose(made, &asked);
    if (why) status = packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, why);
  }
  if (!status) {
    const int flags = fcntl(made->context->async_fd, F_GETFL);
    (void)fcntl(made->context->async_fd, F_SETFL, flags | O_NONBLOCK);
    made->pd = made->ibv.alloc_pd(made->context);
    if (!made->pd) status = packbuf_i_system_fail(error, "the RDMA device gives no protection domain", errno);
  }
  if (status) packbuf_i_nic_close(made);
  else *nic = made;
  return status;
}

/* What happened to the device since: of PACKBUF_I_IBV_EVENT_..., those that matter; 0: nothing. */
static int packbuf_i_nic_event(packbuf_i_nic *nic) {
  packbuf_i_ibv_async_event event;
  while (nic->ibv.get_async_event(nic->context, &event) == 0) {
    nic->ibv.ack_async_event(&event);
    if (event.event_type >= PACKBUF_I_IBV_EVENT_DEVICE_FATAL && event.event_type <= PACKBUF_I_IBV_EVENT_PORT_ERR)
      return event.event_type;
  }
  return 0;
}

/* ---- memory ---- */

/* Lets the device use memory. access: of PACKBUF_I_IBV_LOCAL_WRITE and _REMOTE_READ. */
static packbuf_status packbuf_i_plot_open(packbuf_i_nic *nic, const void *address, uint64_t size, int access,
                                          packbuf_i_plot *plot, packbuf_error *error) {
  plot->start = (uint64_t)(uintptr_t)address;
  plot->end = plot->start + size;
  plot->mr = nic->ibv.reg_mr(nic->pd, (void *)(uintptr_t)address, (size_t)size, access);
  if (plot->mr) return PACKBUF_OK;
  return packbuf_i_system_fail(error, "memory cannot be registered with the RDMA device (ulimit -l?)", errno);
}

static void packbuf_i_plot_close(packbuf_i_nic *nic, packbuf_i_plot *plot) {
  if (plot->mr) (void)nic->ibv.dereg_mr(plot->mr);
  plot->mr = NULL;
}

/* Whether all of these bytes are of it. */
static int packbuf_i_plot_has(const packbuf_i_plot *plot, const void *address, uint64_t size) {
  const uint64_t start = (uint64_t)(uintptr_t)address;
  return start >= plot->start && start <= plot->end && size <= plot->end - start;
}

/* ---- queue pairs ---- */

/* Ends them all. When this returns, no READ touches memory any more, and nobody reads ours through them. */
static void packbuf_i_pairs_close(packbuf_i_pairs *pairs) {
  packbuf_i_nic *nic = pairs->nic;
  if (!pairs->pairs) return;
  for (unsigned i = 0; i < pairs->count; i++)
    if (pairs->pairs[i].qp) (void)nic->ibv.destroy_qp(pairs->pairs[i].qp);
  if (pairs->cq) (void)nic->ibv.destroy_cq(pairs->cq);
  if (pairs->channel && pairs->own_channel) (void)nic->ibv.destroy_comp_channel(pairs->channel);
  (void)packbuf_i_heap(&nic->allocator, pairs->pairs, pairs->count * sizeof *pairs->pairs, 0);
  pairs->pairs = NULL;
  pairs->cq = NULL;
  pairs->channel = NULL;
  pairs->busy = 0;
}

/* Where completions are told; its descriptor is not waited for in a read. NULL: the system refuses. */
static packbuf_i_ibv_channel *packbuf_i_channel_open(packbuf_i_nic *nic) {
  packbuf_i_ibv_channel *channel = nic->ibv.create_comp_channel(nic->context);
  const int flags = channel ? fcntl(channel->fd, F_GETFL) : 0;
  if (channel) (void)fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK);
  return channel;
}

/* Makes `count` queue pairs that are joined to none. channel: NULL: one of their own. user: what events name. */
static packbuf_status packbuf_i_pairs_open(packbuf_i_pairs *pairs, packbuf_i_nic *nic, unsigned count,
                                           packbuf_i_ibv_channel *channel, void *user) {
  packbuf_i_ibv_qp_init_attr init;
  memset(pairs, 0, sizeof *pairs);
  pairs->nic = nic;
  pairs->count = count;
  pairs->pairs = (packbuf_i_queue_pair *)packbuf_i_heap(&nic->allocator, NULL, 0, count * sizeof *pairs->pairs);
  if (!pairs->pairs) return PACKBUF_OUT_OF_MEMORY;
  pairs->own_channel = channel == NULL;
  pairs->channel = channel ? channel : packbuf_i_channel_open(nic);
  if (pairs->channel) /* after an error all of a chain is told of */
    pairs->cq = nic->ibv.create_cq(nic->context, (int)count * PACKBUF_I_CHAIN, user, pairs->channel, 0);
  if (!pairs->cq || nic->context->req_notify_cq(pairs->cq, 0) != 0) return PACKBUF_SYSTEM;
  memset(&init, 0, sizeof init);
  init.send_cq = init.recv_cq = pairs->cq;
  init.qp_type = PACKBUF_I_IBV_RELIABLE;
  init.cap.max_send_wr = 2 * PACKBUF_I_CHAIN;
  init.cap.max_recv_wr = 1;
  init.cap.max_send_sge = init.cap.max_recv_sge = 1;
  for (unsigned i = 0; i < count; i++) {
    packbuf_i_queue_pair *pair = &pairs->pairs[i];
    packbuf_i_ibv_qp_attr attr;
    pair->qp = nic->ibv.create_qp(nic->pd, &init);
    if (!pair->qp || !packbuf_i_random(&pair->psn, sizeof pair->psn)) return PACKBUF_SYSTEM;
    pair->psn &= 0xFFFFFFu;
    memset(&attr, 0, sizeof attr);
    attr.qp_state = PACKBUF_I_IBV_STATE_INIT;
    attr.port_num = nic->port;
    attr.qp_access_flags = PACKBUF_I_IBV_REMOTE_READ;
    if (nic->ibv.modify_qp(
            pair->qp, &attr,
            PACKBUF_I_IBV_SET_STATE | PACKBUF_I_IBV_SET_PKEY | PACKBUF_I_IBV_SET_PORT | PACKBUF_I_IBV_SET_ACCESS) != 0)
      return PACKBUF_SYSTEM;
  }
  return PACKBUF_OK;
}

/* What the other side has to know of them. */
static void packbuf_i_pairs_tell(const packbuf_i_pairs *pairs, packbuf_i_pairing *pairing) {
  const packbuf_i_nic *nic = pairs->nic;
  memset(pairing, 0, sizeof *pairing);
  pairing->lid = nic->lid;
  pairing->mtu = (uint8_t)nic->mtu;
  pairing->reads = (uint8_t)nic->reads;
  memcpy(pairing->gid, nic->gid.raw, sizeof pairing->gid);
  pairing->count = pairs->count;
  for (unsigned i = 0; i < pairs->count; i++) {
    pairing->numbers[i] = pairs->pairs[i].qp->qp_num;
    pairing->psns[i] = pairs->pairs[i].psn;
  }
}

/* Joins them to those of the other side. */
static packbuf_status packbuf_i_pairs_join(packbuf_i_pairs *pairs, const packbuf_i_pairing *other) {
  packbuf_i_nic *nic = pairs->nic;
  packbuf_i_ibv_qp_attr to, from;
  if (other->count != pairs->count) return PACKBUF_PROTOCOL;
  memset(&to, 0, sizeof to);
  to.qp_state = PACKBUF_I_IBV_STATE_RTR;
  to.path_mtu = other->mtu < nic->mtu ? other->mtu : nic->mtu;
  to.max_dest_rd_atomic = (uint8_t)nic->reads;
  to.min_rnr_timer = 12;
  memcpy(to.ah_attr.dgid.raw, other->gid, sizeof other->gid);
  to.ah_attr.sgid_index = (uint8_t)nic->gid_index;
  to.ah_attr.hop_limit = 64;
  to.ah_attr.dlid = other->lid;
  to.ah_attr.is_global = 1;
  to.ah_attr.port_num = nic->port;
  memset(&from, 0, sizeof from);
  from.qp_state = PACKBUF_I_IBV_STATE_RTS;
  from.timeout = PACKBUF_I_ACK_TIMEOUT;
  from.retry_cnt = from.rnr_retry = PACKBUF_I_RETRIES;
  from.max_rd_atomic = (uint8_t)(other->reads < nic->reads ? other->reads : nic->reads);
  for (unsigned i = 0; i < pairs->count; i++) {
    packbuf_i_queue_pair *pair = &pairs->pairs[i];
    to.dest_qp_num = other->numbers[i];
    to.rq_psn = other->psns[i];
    from.sq_psn = pair->psn;
    if (nic->ibv.modify_qp(pair->qp, &to,
                           PACKBUF_I_IBV_SET_STATE | PACKBUF_I_IBV_SET_AV | PACKBUF_I_IBV_SET_PATH_MTU |
                               PACKBUF_I_IBV_SET_DEST_QPN | PACKBUF_I_IBV_SET_RQ_PSN |
                               PACKBUF_I_IBV_SET_MAX_DEST_RD_ATOMIC | PACKBUF_I_IBV_SET_MIN_RNR_TIMER) != 0 ||
        nic->ibv.modify_qp(pair->qp, &from,
                           PACKBUF_I_IBV_SET_STATE | PACKBUF_I_IBV_SET_TIMEOUT | PACKBUF_I_IBV_SET_RETRY_CNT |
                               PACKBUF_I_IBV_SET_RNR_RETRY | PACKBUF_I_IBV_SET_SQ_PSN |
                               PACKBUF_I_IBV_SET_MAX_RD_ATOMIC) != 0)
      return PACKBUF_SYSTEM;
  }
  return PACKBUF_OK;
}

/* ---- chains ---- */

/* Adds a READ to the chain of a pair that has none under way, and room for it: of `size` bytes as many as one READ may
 * have, which is returned. */
static uint32_t packbuf_i_pair_add(packbuf_i_pairs *pairs, packbuf_i_queue_pair *pair, void *to, uint32_t lkey,
                                   uint64_t from, uint32_t rkey, uint64_t size, void *user) {
  packbuf_i_fetch *fetch = &pair->chain[pair->count];
  if (size > pairs->nic->message) size = pairs->nic->message;
  fetch->to = to;
  fetch->lkey = lkey;
  fetch->from = from;
  fetch->rkey = rkey;
  fetch->size = (uint32_t)size;
  fetch->user = user;
  pair->count++;
  pair->bytes += size;
  return (uint32_t)size;
}

/* Posts a pair's chain: its last READ alone tells that it ended. 0: the device refuses. */
static int packbuf_i_pair_post(packbuf_i_pairs *pairs, unsigned which) {
  enum { AT_ONCE = 64 };
  packbuf_i_ibv_send_wr requests[AT_ONCE], *bad;
  packbuf_i_ibv_sge places[AT_ONCE];
  packbuf_i_queue_pair *pair = &pairs->pairs[which];
  if (!pair->count) return 1;
  pair->posted = 1;
  pairs->busy++;
  pairs->signalled++;
  for (uint32_t from = 0; from < pair->count; from += AT_ONCE) {
    const uint32_t some = pair->count - from < AT_ONCE ? pair->count - from : (uint32_t)AT_ONCE;
    memset(requests, 0, some * sizeof *requests);
    for (uint32_t i = 0; i < some; i++) {
      const packbuf_i_fetch *fetch = &pair->chain[from + i];
      places[i].addr = (uint64_t)(uintptr_t)fetch->to;
      places[i].length = fetch->size;
      places[i].lkey = fetch->lkey;
      requests[i].wr_id = (uint64_t)which << 32 | (from + i);
      requests[i].next = i + 1 < some ? &requests[i + 1] : NULL;
      requests[i].sg_list = &places[i];
      requests[i].num_sge = 1;
      requests[i].opcode = PACKBUF_I_IBV_RDMA_READ;
      requests[i].send_flags = from + i + 1 == pair->count ? (unsigned)PACKBUF_I_IBV_SIGNALED : 0u;
      requests[i].remote_addr = fetch->from;
      requests[i].rkey = fetch->rkey;
    }
    if (pairs->nic->context->post_send(pair->qp, requests, &bad) != 0) return 0;
  }
  return 1;
}

/* What a completion means. */
static packbuf_status packbuf_i_wc_status(int status) {
  switch (status) {
    case PACKBUF_I_IBV_DONE: return PACKBUF_OK;
    case PACKBUF_I_IBV_LOC_QP_OP: /* of a READ: its own port is down, or there is no way from it */
    case PACKBUF_I_IBV_RETRY_EXC:
    case PACKBUF_I_IBV_RNR_RETRY_EXC: return PACKBUF_DISCONNECTED;
    case PACKBUF_I_IBV_REM_INV_REQ:
    case PACKBUF_I_IBV_REM_ACCESS:
    case PACKBUF_I_IBV_REM_OP: return PACKBUF_PROTOCOL;
    case PACKBUF_I_IBV_LOC_PROT: return PACKBUF_UNREGISTERED;
    default: return PACKBUF_SYSTEM;
  }
}

/* Events of a channel that were told. *user: whose pairs; to be asked until it is 0. */
static int packbuf_i_channel_event(packbuf_i_nic *nic, packbuf_i_ibv_channel *channel, void **user) {
  packbuf_i_ibv_cq *cq;
  if (nic->ibv.get_cq_event(channel, &cq, user) != 0) return 0;
  nic->ibv.ack_cq_events(cq, 1);
  return 1;
}

/* One chain that ended. 1: that of *which; its first *good READs are done, and *status says how the next one failed
 * (OK: none did); after an error they are all of no use any more. 0: none has ended. */
static int packbuf_i_pairs_ended(packbuf_i_pairs *pairs, unsigned *which, uint32_t *good, packbuf_status *status) {
  packbuf_i_ibv_wc wc;
  int count;
  memset(&wc, 0, sizeof wc);
  count = pairs->nic->context->poll_cq(pairs->cq, 1, &wc);
  if (!count) return 0;
  *which = count < 0 ? 0 : (unsigned)(wc.wr_id >> 32) % pairs->count;
  *good = 0;
  *status = count < 0 ? PACKBUF_SYSTEM : packbuf_i_wc_status(wc.status);
  if (count > 0) *good = (uint32_t)wc.wr_id + (*status == PACKBUF_OK);
  if (!*status) {
    pairs->pairs[*which].posted = 0;
    pairs->busy--;
  }
  return 1;
}

/* Has to be called before the last look at completions, that the next one be told. */
static void packbuf_i_pairs_listen(packbuf_i_pairs *pairs) { (void)pairs->nic->context->req_notify_cq(pairs->cq, 0); }
