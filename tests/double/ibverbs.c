/* tests/double/ibverbs.c: a libibverbs.so.1 for machines without a device: two devices, dbl0 and dbl1, whose READs are
 * process_vm_readv between processes that share a table (the file that IBVERBS_DOUBLE names). It knows what the library
 * does with keys, bounds, access rights, states of queue pairs, flushes, completion channels and peers that die, and
 * aborts when somebody asks for remote writes, overruns a queue, or leaves something behind. IBVERBS_DOUBLE_DEVICES=0:
 * no device. It is built with the transport's own declarations, which tests/verbs_abi.c compares with the real header.
 * Must not know: packbuf's stores. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "tests/internals.h"
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#define EXPORT __attribute__((visibility("default")))
#define SLOTS 4096u

static void demand(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "ibverbs double: %s\n", what);
  abort();
}

/* ---- what processes share ---- */

typedef struct region {
  int pid; /* 0: free; claimed by compare and swap */
  uint32_t key, access;
  uint64_t start, size;
} region;

typedef struct end {
  int pid;
  uint32_t number, other, state; /* state: as the library's; 6: ERR */
} end;

typedef struct table {
  uint64_t count; /* of keys and numbers, so that none comes back soon */
  region regions[SLOTS];
  end ends[SLOTS];
} table;

static table *shared;

EXPORT uint64_t ibverbs_double_counts[4]; /* registrations, requests, completions asked for, READs that failed */

static int alive(int pid) { return pid == getpid() || kill(pid, 0) == 0 || errno != ESRCH; }

static table *the_table(void) {
  const char *name = getenv("IBVERBS_DOUBLE");
  struct stat stat;
  void *map;
  int fd;
  if (shared) return shared;
  demand(name != NULL, "IBVERBS_DOUBLE names no file");
  fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  demand(
      fd >= 0 && fstat(fd, &stat) == 0 && ((size_t)stat.st_size >= sizeof(table) || ftruncate(fd, sizeof(table)) == 0),
      "no table");
  map = mmap(NULL, sizeof(table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  demand(map != MAP_FAILED, "no table");
  (void)close(fd);
  return shared = (table *)map;
}

/* A slot of an array whose elements begin with a pid; those of the dead are free. */
static uint32_t claim(void *array, size_t each) {
  for (uint32_t i = 0; i < SLOTS; i++) {
    int *pid = (int *)(void *)((uint8_t *)array + i * each), was = PACKBUF_I_LOAD(pid);
    if (was && alive(was)) continue;
    if (PACKBUF_I_EXCHANGE(pid, &was, getpid())) return i;
  }
  demand(0, "the table is full");
  return 0;
}

/* ---- devices ---- */

typedef struct context {
  packbuf_i_ibv_context front; /* first */
  uint64_t after_front[32];    /* what the real one has there */
} context;

static struct device {
  char name[8];
} devices[2] = {{"dbl0"}, {"dbl1"}};

EXPORT packbuf_i_ibv_device **ibv_get_device_list(int *count) {
  const char *wanted = getenv("IBVERBS_DOUBLE_DEVICES");
  packbuf_i_ibv_device **list = (packbuf_i_ibv_device **)calloc(3, sizeof *list);
  *count = wanted ? atoi(wanted) : 2;
  for (int i = 0; list && i < *count && i < 2; i++) list[i] = (packbuf_i_ibv_device *)(void *)&devices[i];
  return list;
}
EXPORT void ibv_free_device_list(packbuf_i_ibv_device **list) { free(list); }
EXPORT const char *ibv_get_device_name(packbuf_i_ibv_device *device) { return ((struct device *)(void *)device)->name; }

static int poll_cq(packbuf_i_ibv_cq *front, int count, packbuf_i_ibv_wc *wc);
static int req_notify_cq(packbuf_i_ibv_cq *front, int solicited_only);
static int post_send(packbuf_i_ibv_qp *front, packbuf_i_ibv_send_wr *wr, packbuf_i_ibv_send_wr **bad);

EXPORT packbuf_i_ibv_context *ibv_open_device(packbuf_i_ibv_device *device) {
  context *made = (context *)calloc(1, sizeof *made);
  if (!made) return NULL;
  made->front.device = device;
  made->front.poll_cq = poll_cq;
  made->front.req_notify_cq = req_notify_cq;
  made->front.post_send = post_send;
  made->front.async_fd = eventfd(0, EFD_CLOEXEC);
  (void)the_table();
  return &made->front;
}
EXPORT int ibv_close_device(packbuf_i_ibv_context *front) {
  (void)close(front->async_fd);
  free(front);
  return 0;
}
EXPORT int ibv_query_device(packbuf_i_ibv_context *front, packbuf_i_ibv_device_attr *attr) {
  (void)front;
  memset(attr, 0, sizeof *attr);
  attr->phys_port_cnt = 1;
  attr->max_qp_rd_atom = attr->max_qp_init_rd_atom = 16;
  attr->max_qp_wr = 1024;
  return 0;
}
EXPORT int ibv_query_port(packbuf_i_ibv_context *front, uint8_t port, packbuf_i_ibv_port_attr *attr) {
  (void)front, (void)port;
  attr->state = PACKBUF_I_IBV_PORT_ACTIVE;
  attr->active_mtu = 3;
  attr->gid_tbl_len = 1;
  attr->max_msg_sz = 100000; /* little, so that READs of one object are many */
  return 0;
}
EXPORT int ibv_query_gid(packbuf_i_ibv_context *front, uint8_t port, int index, packbuf_i_ibv_gid *gid) {
  static const uint8_t loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 127, 0, 0, 1};
  (void)front, (void)port;
  if (index) return -1;
  memcpy(gid->raw, loopback, 16);
  return 0;
}
EXPORT int ibv_get_async_event(packbuf_i_ibv_context *front, packbuf_i_ibv_async_event *event) {
  uint64_t one;
  if (read(front->async_fd, &one, sizeof one) != sizeof one) return -1;
  memset(event, 0, sizeof *event);
  event->event_type = PACKBUF_I_IBV_EVENT_PORT_ERR;
  return 0;
}
EXPORT void ibv_ack_async_event(packbuf_i_ibv_async_event *event) { (void)event; }

/* ---- memory ---- */

EXPORT packbuf_i_ibv_pd *ibv_alloc_pd(packbuf_i_ibv_context *front) {
  packbuf_i_ibv_pd *pd = (packbuf_i_ibv_pd *)calloc(1, sizeof *pd);
  if (pd) pd->context = front;
  return pd;
}
EXPORT int ibv_dealloc_pd(packbuf_i_ibv_pd *pd) {
  demand(pd->handle == 0, "a protection domain ends that is in use");
  free(pd);
  return 0;
}

typedef struct mr {
  packbuf_i_ibv_mr front;
  uint32_t slot;
} mr;

/* Whether memory is a file's, mapped for reading alone, which Linux 6.1 gives no device. */
static int read_only_file(const void *address) {
  FILE *maps = fopen("/proc/self/maps", "re");
  char line[512], rights[8] = "";
  unsigned long long start, end;
  int found = 0;
  while (maps && !found && fgets(line, sizeof line, maps))
    found = sscanf(line, "%llx-%llx %7s", &start, &end, rights) == 3 && (uintptr_t)address >= start &&
            (uintptr_t)address < end;
  if (maps) (void)fclose(maps);
  return found && strcmp(rights, "r--s") == 0;
}

EXPORT packbuf_i_ibv_mr *ibv_reg_mr(packbuf_i_ibv_pd *pd, void *address, size_t size, int access) {
  mr *made;
  region *one;
  unsigned char in_core;
  demand((access & ~(PACKBUF_I_IBV_LOCAL_WRITE | PACKBUF_I_IBV_REMOTE_READ)) == 0,
         "memory for more than local writes and remote reads");
  if (!size || mincore((void *)((uintptr_t)address & ~(uintptr_t)4095), 1, &in_core) != 0 || read_only_file(address)) {
    errno = size ? EFAULT : EINVAL;
    return NULL;
  }
  made = (mr *)calloc(1, sizeof *made);
  if (!made) return NULL;
  made->slot = claim(the_table()->regions, sizeof(region));
  one = &the_table()->regions[made->slot];
  made->front.pd = pd;
  made->front.context = pd->context;
  made->front.addr = address;
  made->front.length = size;
  made->front.lkey = made->front.rkey = made->slot << 12 | (uint32_t)(PACKBUF_I_ADD(&the_table()->count, 1) & 0xFFF);
  one->start = (uint64_t)(uintptr_t)address;
  one->size = size;
  one->access = (uint32_t)access;
  PACKBUF_I_STORE(&one->key, made->front.rkey);
  (void)PACKBUF_I_ADD(&pd->handle, 1);
  (void)PACKBUF_I_ADD(&ibverbs_double_counts[0], 1);
  return &made->front;
}
EXPORT int ibv_dereg_mr(packbuf_i_ibv_mr *front) {
  region *one = &the_table()->regions[((mr *)(void *)front)->slot];
  PACKBUF_I_STORE(&one->key, UINT32_MAX);
  PACKBUF_I_STORE(&one->pid, 0);
  (void)PACKBUF_I_SUBTRACT(&front->pd->handle, 1);
  free(front);
  return 0;
}

/* Whether a process may have these bytes used so. */
static int allowed(int pid, uint32_t key, uint64_t start, uint64_t size, uint32_t access) {
  const region *one = &the_table()->regions[key >> 12 & (SLOTS - 1)];
  return PACKBUF_I_LOAD(&one->pid) == pid && PACKBUF_I_LOAD(&one->key) == key && (one->access & access) &&
         start >= one->start && size <= one->size && start - one->start <= one->size - size;
}

/* ---- completions ---- */

typedef struct event {
  struct event *next;
  packbuf_i_ibv_cq *cq;
} event;

typedef struct channel {
  packbuf_i_ibv_channel front;
  packbuf_i_lock lock;
  event *events;
} channel;

typedef struct cq {
  packbuf_i_ibv_cq front;
  packbuf_i_lock lock;
  packbuf_i_ibv_wc *ring;
  unsigned from, count, room, armed, uses, unacknowledged;
} cq;

EXPORT packbuf_i_ibv_channel *ibv_create_comp_channel(packbuf_i_ibv_context *front) {
  channel *made = (channel *)calloc(1, sizeof *made);
  if (!made) return NULL;
  made->front.context = front;
  made->front.fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
  demand(made->front.fd >= 0 && packbuf_i_lock_start(&made->lock), "no channel");
  return &made->front;
}
EXPORT int ibv_destroy_comp_channel(packbuf_i_ibv_channel *front) {
  demand(front->refcnt == 0, "a channel ends that is in use");
  (void)close(front->fd);
  packbuf_i_lock_end(&((channel *)(void *)front)->lock);
  free(front);
  return 0;
}
EXPORT int ibv_get_cq_event(packbuf_i_ibv_channel *front, packbuf_i_ibv_cq **which, void **user) {
  channel *c = (channel *)(void *)front;
  uint64_t one;
  event *first;
  if (read(front->fd, &one, sizeof one) != sizeof one) return -1;
  packbuf_i_locked(&c->lock);
  first = c->events;
  if (first) c->events = first->next;
  packbuf_i_unlocked(&c->lock);
  if (!first) return -1;
  *which = first->cq;
  *user = first->cq->cq_context;
  (void)PACKBUF_I_ADD(&((cq *)(void *)first->cq)->unacknowledged, 1);
  free(first);
  return 0;
}
EXPORT void ibv_ack_cq_events(packbuf_i_ibv_cq *front, unsigned count) {
  (void)PACKBUF_I_SUBTRACT(&((cq *)(void *)front)->unacknowledged, count);
}

EXPORT packbuf_i_ibv_cq *ibv_create_cq(packbuf_i_ibv_context *front, int entries, void *user,
                                       packbuf_i_ibv_channel *told, int vector) {
  cq *made = (cq *)calloc(1, sizeof *made);
  (void)vector;
  if (!made) return NULL;
  made->front.context = front;
  made->front.channel = told;
  made->front.cq_context = user;
  made->room = (unsigned)entries;
  made->ring = (packbuf_i_ibv_wc *)calloc(made->room, sizeof *made->ring);
  demand(made->ring && packbuf_i_lock_start(&made->lock), "no completion queue");
  (void)PACKBUF_I_ADD(&told->refcnt, 1);
  return &made->front;
}
EXPORT int ibv_destroy_cq(packbuf_i_ibv_cq *front) {
  cq *c = (cq *)(void *)front;
  channel *told = (channel *)(void *)front->channel;
  demand(PACKBUF_I_LOAD(&c->uses) == 0, "a completion queue ends that is in use");
  demand(PACKBUF_I_LOAD(&c->unacknowledged) == 0,
         "a completion queue ends whose events are not acknowledged: it would wait for ever");
  packbuf_i_locked(&told->lock);
  for (event **at = &told->events; *at;) {
    event *one = *at;
    uint64_t gone;
    if (one->cq != front) {
      at = &one->next;
      continue;
    }
    *at = one->next;
    demand(read(told->front.fd, &gone, sizeof gone) == sizeof gone, "an event too few");
    free(one);
  }
  packbuf_i_unlocked(&told->lock);
  (void)PACKBUF_I_SUBTRACT(&told->front.refcnt, 1);
  packbuf_i_lock_end(&c->lock);
  free(c->ring);
  free(c);
  return 0;
}

static void tell(cq *c) {
  channel *told = (channel *)(void *)c->front.channel;
  event *one = (event *)calloc(1, sizeof *one), **at = &told->events;
  const uint64_t more = 1;
  demand(one != NULL, "no memory");
  one->cq = &c->front;
  packbuf_i_locked(&told->lock);
  while (*at) at = &(*at)->next;
  *at = one;
  demand(write(told->front.fd, &more, sizeof more) == sizeof more, "no event");
  packbuf_i_unlocked(&told->lock);
}

static void complete(cq *c, uint64_t id, int status) {
  packbuf_i_ibv_wc *wc;
  packbuf_i_locked(&c->lock);
  demand(c->count < c->room, "a completion queue is overrun");
  wc = &c->ring[(c->from + c->count++) % c->room];
  memset(wc, 0, sizeof *wc);
  wc->wr_id = id;
  wc->status = status;
  if (c->armed) tell(c);
  c->armed = 0;
  packbuf_i_unlocked(&c->lock);
}

static int poll_cq(packbuf_i_ibv_cq *front, int count, packbuf_i_ibv_wc *wc) {
  cq *c = (cq *)(void *)front;
  int some = 0;
  packbuf_i_locked(&c->lock);
  for (; some < count && c->count; some++, c->count--) {
    wc[some] = c->ring[c->from];
    c->from = (c->from + 1) % c->room;
  }
  packbuf_i_unlocked(&c->lock);
  return some;
}
static int req_notify_cq(packbuf_i_ibv_cq *front, int solicited_only) {
  cq *c = (cq *)(void *)front;
  (void)solicited_only;
  packbuf_i_locked(&c->lock);
  c->armed = 1;
  packbuf_i_unlocked(&c->lock);
  return 0;
}

/* ---- queue pairs ---- */

typedef struct qp {
  packbuf_i_ibv_qp front;
  uint32_t slot, most, since; /* since: requests after the last one that is told of, which still take room */
} qp;

EXPORT packbuf_i_ibv_qp *ibv_create_qp(packbuf_i_ibv_pd *pd, packbuf_i_ibv_qp_init_attr *init) {
  qp *made = (qp *)calloc(1, sizeof *made);
  end *one;
  if (!made) return NULL;
  demand(init->qp_type == PACKBUF_I_IBV_RELIABLE && !init->sq_sig_all, "another queue pair than is known here");
  made->slot = claim(the_table()->ends, sizeof(end));
  made->most = init->cap.max_send_wr;
  one = &the_table()->ends[made->slot];
  made->front.context = pd->context;
  made->front.pd = pd;
  made->front.send_cq = init->send_cq;
  made->front.qp_num = made->slot << 12 | (uint32_t)(PACKBUF_I_ADD(&the_table()->count, 1) & 0xFFF);
  one->number = made->front.qp_num;
  PACKBUF_I_STORE(&one->state, 0);
  (void)PACKBUF_I_ADD(&((cq *)(void *)init->send_cq)->uses, 1);
  (void)PACKBUF_I_ADD(&pd->handle, 1);
  return &made->front;
}
EXPORT int ibv_destroy_qp(packbuf_i_ibv_qp *front) {
  qp *q = (qp *)(void *)front;
  end *one = &the_table()->ends[q->slot];
  PACKBUF_I_STORE(&one->state, 6);
  PACKBUF_I_STORE(&one->number, UINT32_MAX);
  PACKBUF_I_STORE(&one->pid, 0);
  (void)PACKBUF_I_SUBTRACT(&((cq *)(void *)front->send_cq)->uses, 1);
  (void)PACKBUF_I_SUBTRACT(&front->pd->handle, 1);
  free(q);
  return 0;
}
EXPORT int ibv_modify_qp(packbuf_i_ibv_qp *front, packbuf_i_ibv_qp_attr *attr, int mask) {
  end *one = &the_table()->ends[((qp *)(void *)front)->slot];
  const uint32_t state = PACKBUF_I_LOAD(&one->state);
  demand((mask & PACKBUF_I_IBV_SET_STATE) && (uint32_t)attr->qp_state == state + 1, "a state out of its turn");
  if (attr->qp_state == PACKBUF_I_IBV_STATE_INIT)
    demand((mask & PACKBUF_I_IBV_SET_ACCESS) && attr->qp_access_flags == PACKBUF_I_IBV_REMOTE_READ,
           "a queue pair for more than remote reads");
  if (attr->qp_state == PACKBUF_I_IBV_STATE_RTR) one->other = attr->dest_qp_num;
  if (attr->qp_state == PACKBUF_I_IBV_STATE_RTS)
    demand(attr->retry_cnt <= 6 && attr->timeout >= 14, "retries for ever, or a time that is too short");
  PACKBUF_I_STORE(&one->state, (uint32_t)attr->qp_state);
  return 0;
}

/* The other end; NULL: it is gone, or not joined to this one. */
static end *other_end(const end *mine) {
  end *one = &the_table()->ends[mine->other >> 12 & (SLOTS - 1)];
  const int pid = PACKBUF_I_LOAD(&one->pid);
  const uint32_t state = PACKBUF_I_LOAD(&one->state);
  return pid && alive(pid) && PACKBUF_I_LOAD(&one->number) == mine->other && one->other == mine->number &&
                 (state == 2 || state == 3)
             ? one
             : NULL;
}

static int read_there(const packbuf_i_ibv_send_wr *wr, end *mine) {
  end *other = other_end(mine);
  struct iovec to, from;
  if (!allowed(getpid(), wr->sg_list->lkey, wr->sg_list->addr, wr->sg_list->length, PACKBUF_I_IBV_LOCAL_WRITE))
    return PACKBUF_I_IBV_LOC_PROT;
  if (!other) return PACKBUF_I_IBV_RETRY_EXC;
  if (!allowed(PACKBUF_I_LOAD(&other->pid), wr->rkey, wr->remote_addr, wr->sg_list->length,
               PACKBUF_I_IBV_REMOTE_READ)) {
    PACKBUF_I_STORE(&other->state, 6);
    return PACKBUF_I_IBV_REM_ACCESS;
  }
  to.iov_base = (void *)(uintptr_t)wr->sg_list->addr;
  from.iov_base = (void *)(uintptr_t)wr->remote_addr;
  to.iov_len = from.iov_len = wr->sg_list->length;
  return process_vm_readv(PACKBUF_I_LOAD(&other->pid), &to, 1, &from, 1, 0) == (ssize_t)to.iov_len
             ? PACKBUF_I_IBV_DONE
             : PACKBUF_I_IBV_RETRY_EXC;
}

static int post_send(packbuf_i_ibv_qp *front, packbuf_i_ibv_send_wr *wr, packbuf_i_ibv_send_wr **bad) {
  qp *q = (qp *)(void *)front;
  end *mine = &the_table()->ends[q->slot];
  for (; wr; wr = wr->next) {
    const int told = (wr->send_flags & PACKBUF_I_IBV_SIGNALED) != 0;
    int status = PACKBUF_I_IBV_FLUSHED;
    demand(wr->opcode == PACKBUF_I_IBV_RDMA_READ && wr->num_sge == 1, "a request that is no READ");
    (void)PACKBUF_I_ADD(&ibverbs_double_counts[1], 1);
    (void)PACKBUF_I_ADD(&ibverbs_double_counts[2], (uint64_t)told);
    *bad = wr;
    if (q->since++ == q->most) return ENOMEM;
    if (PACKBUF_I_LOAD(&mine->state) == PACKBUF_I_IBV_STATE_RTS) status = read_there(wr, mine);
    if (status) {
      PACKBUF_I_STORE(&mine->state, 6);
      (void)PACKBUF_I_ADD(&ibverbs_double_counts[3], 1);
    }
    if (told) q->since = 0;
    if (told || status) complete((cq *)(void *)front->send_cq, wr->wr_id, status);
  }
  return 0;
}
