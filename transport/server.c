/* transport/server.c: one store for many machines. First what the server says to what a client says, fed with bytes and
 * asked for bytes (a link), then the sockets: event loops, each connection in one of them, none with a thread.
 * May use: system, text, frames, tcp (addresses, secrets), the public calls of stores. Must not know: drivers, what a
 * store does behind its calls. */
#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/eventfd.h>
#endif

/* ---- what all connections share ---- */

enum {
  PACKBUF_I_GROUP = 64,         /* items of one call of the store */
  PACKBUF_I_REQUESTS = 16,      /* under way in one connection */
  PACKBUF_I_QUEUED = 8388608,   /* bytes on their way out, beyond which a connection is not read from */
  PACKBUF_I_CHUNK_OUT = 4194304 /* of one DATA frame */
};

typedef struct packbuf_i_service {
  packbuf_store *store;
  packbuf_allocator allocator;
  uint8_t secret[PACKBUF_I_SECRET], id[16];
  size_t secret_size;
  unsigned capabilities;
  uint64_t lease_ns, quota;
  uint64_t wanting;          /* connections that wait for room (atomic) */
  packbuf_counters counters; /* atomic */
  packbuf_i_lock lock;       /* of sessions and of the log */
  struct packbuf_i_account *accounts;
  packbuf_log log;
  void *log_context;
} packbuf_i_service;

#define PACKBUF_I_SERVED(service, name, more) ((void)PACKBUF_I_ADD(&(service)->counters.name, (uint64_t)(more)))

static void packbuf_i_service_log(packbuf_i_service *service, packbuf_log_level level, const char *text) {
  if (!service->log) return;
  packbuf_i_locked(&service->lock);
  service->log(service->log_context, level, text);
  packbuf_i_unlocked(&service->lock);
}

/* Room for one group, of a thread. */
typedef struct packbuf_i_group {
  packbuf_item items[PACKBUF_I_GROUP];
  packbuf_ref about[PACKBUF_I_GROUP];
  struct packbuf_i_job *works[PACKBUF_I_GROUP];
  char keys[PACKBUF_I_GROUP][PACKBUF_MAX_KEY + 1];
  uint8_t frame[PACKBUF_I_FRAME_HEADER + PACKBUF_I_GROUP * PACKBUF_I_RESULT_SIZE];
} packbuf_i_group;

/* ---- what is under way in a connection ---- */

enum { PACKBUF_I_WORK_WAITS, PACKBUF_I_WORK_FILLS, PACKBUF_I_WORK_READY, PACKBUF_I_WORK_LEASED, PACKBUF_I_WORK_DONE };

/* One item of a put or of a remove. */
typedef struct packbuf_i_job {
  const char *key;
  packbuf_slice slice;
  uint64_t size, came, head_length, generation, charged;
  uint32_t flags, ttl_ms, head_checksum;
  uint8_t kind, state, eager, fingerprint[PACKBUF_FINGERPRINT];
  packbuf_status status; /* that it ends with, or what it waits for */
  packbuf_stat stat;
} packbuf_i_job;

typedef struct packbuf_i_request {
  struct packbuf_i_request *next;
  size_t block; /* bytes of this */
  uint64_t id, deadline;
  uint32_t type, count, left; /* left: items that are not answered */
  packbuf_i_job *works;       /* behind this, and the keys behind them */
} packbuf_i_request;

/* What is on its way out: bytes, or the bytes of a leased object in DATA frames. */
typedef struct packbuf_i_outgoing {
  struct packbuf_i_outgoing *next;
  size_t block, size, sent; /* size: of `bytes` */
  const uint8_t *bytes;     /* behind this; of an object: `head` */
  packbuf_lease lease;
  const packbuf_range *ranges; /* behind this */
  uint64_t left, chunk;        /* bytes of the answer in no frame yet; bytes of the frame that have not gone */
  uint64_t offset, in_range;
  uint64_t range, request;
  uint16_t index;
  uint8_t head[PACKBUF_I_FRAME_HEADER + PACKBUF_I_DATA_SIZE];
} packbuf_i_outgoing;

enum { PACKBUF_I_LINK_HELLO, PACKBUF_I_LINK_PROOF, PACKBUF_I_LINK_OPEN, PACKBUF_I_LINK_ENDING };

typedef struct packbuf_i_link {
  packbuf_i_service *service;
  packbuf_i_group *group;
  packbuf_i_intake intake;
  packbuf_i_request *requests;
  packbuf_i_outgoing *sending, **sending_end;
  struct packbuf_i_account *account;
  uint64_t queued; /* bytes on their way out */
  unsigned state, request_count, ready, waiting, denied;
  /* the payload that is coming in */
  packbuf_i_request *receiving; /* NULL: it is dropped */
  uint32_t at, eager;           /* its item; eager: the items of a PUT, one after the other */
  uint64_t at_left;
  unsigned dropping;
  /* the greeting, for the proofs */
  uint8_t hello[PACKBUF_I_FRAME_GREETING], welcome[128];
  size_t hello_size, welcome_size; /* of HTTP: what is kept of the request, and what has come */
  /* its socket */
  struct packbuf_i_link *before, *after;
  int fd, http;
  unsigned events, dead, known;
  uint64_t born, came, moved, held; /* times: of the last byte that came, of the last that moved; not read until */
  uint32_t failures_at;             /* where failures of its address are counted */
} packbuf_i_link;

/* ---- out ---- */

static packbuf_i_outgoing *packbuf_i_sending_new(packbuf_i_link *link, size_t more) {
  const size_t block = sizeof(packbuf_i_outgoing) + more;
  packbuf_i_outgoing *sending = (packbuf_i_outgoing *)packbuf_i_heap(&link->service->allocator, NULL, 0, block);
  if (sending) {
    sending->block = block;
    *link->sending_end = sending;
    link->sending_end = &sending->next;
  } else link->dead = 1; /* without memory for an answer there is no way to go on */
  return sending;
}

static void packbuf_i_link_send(packbuf_i_link *link, const uint8_t *bytes, size_t size) {
  packbuf_i_outgoing *sending = packbuf_i_sending_new(link, size);
  if (!sending) return;
  memcpy(sending + 1, bytes, size);
  sending->bytes = (const uint8_t *)(sending + 1);
  sending->size = size;
  link->queued += size;
}

/* Takes the lease over. */
static void packbuf_i_link_send_object(packbuf_i_link *link, uint64_t request, uint16_t index, packbuf_lease *lease,
                                       const uint8_t *ranges, uint64_t count, uint64_t total) {
  packbuf_i_outgoing *sending = packbuf_i_sending_new(link, (size_t)count * sizeof(packbuf_range));
  packbuf_range *list;
  if (!sending) {
    packbuf_lease_release(lease);
    return;
  }
  list = (packbuf_range *)(void *)(sending + 1);
  for (uint64_t i = 0; i < count; i++) {
    if (ranges) list[i] = packbuf_i_asked_range(ranges, i);
    else list[i].offset = 0, list[i].length = total;
  }
  sending->ranges = list;
  sending->bytes = sending->head;
  sending->lease = *lease;
  sending->left = total;
  sending->request = request;
  sending->index = index;
  memset(lease, 0, sizeof *lease);
  link->queued += total;
  PACKBUF_I_SERVED(link->service, leases, 1);
}

static void packbuf_i_sending_free(packbuf_i_link *link, packbuf_i_outgoing *sending) {
  if (sending->ranges) {
    packbuf_lease_release(&sending->lease);
    (void)PACKBUF_I_SUBTRACT(&link->service->counters.leases, 1);
  }
  (void)packbuf_i_heap(&link->service->allocator, sending, sending->block, 0);
}

/* Begins the next DATA frame of an object. */
static void packbuf_i_sending_next(packbuf_i_link *link, packbuf_i_outgoing *sending) {
  packbuf_i_wire_to body = packbuf_i_frame_body(sending->head, sizeof sending->head);
  sending->chunk = sending->left < PACKBUF_I_CHUNK_OUT ? sending->left : (uint64_t)PACKBUF_I_CHUNK_OUT;
  packbuf_i_data_write(&body, sending->index, sending->offset);
  sending->size = packbuf_i_frame_end(sending->head, &body, PACKBUF_I_DATA, 1, sending->request, sending->chunk);
  sending->sent = 0;
  sending->left -= sending->chunk;
  sending->offset += sending->chunk;
  link->queued += sending->size;
}

/* The pieces to send next, at most `most`; how many there are. */
static size_t packbuf_i_link_pieces(packbuf_i_link *link, struct iovec *pieces, size_t most) {
  size_t count = 0;
  for (packbuf_i_outgoing *s = link->sending; s && count < most; s = s->next) {
    uint64_t chunk, range = s->range, in_range = s->in_range;
    if (s->sent == s->size && !s->chunk && s->left) packbuf_i_sending_next(link, s);
    if (s->sent < s->size) {
      pieces[count].iov_base = (void *)(uintptr_t)(s->bytes + s->sent);
      pieces[count++].iov_len = s->size - s->sent;
    }
    for (chunk = s->chunk; chunk && count < most; range++, in_range = 0) {
      uint64_t some = s->ranges[range].length - in_range;
      if (!some) continue;
      if (some > chunk) some = chunk;
      pieces[count].iov_base = (void *)(uintptr_t)((const uint8_t *)s->lease.data + s->ranges[range].offset + in_range);
      pieces[count++].iov_len = (size_t)some;
      chunk -= some;
    }
    if (chunk || s->left) break;
  }
  return count;
}

/* So many bytes of them have gone. */
static void packbuf_i_link_went(packbuf_i_link *link, uint64_t size) {
  PACKBUF_I_SERVED(link->service, bytes_moved, size);
  link->queued -= size;
  while (link->sending) {
    packbuf_i_outgoing *s = link->sending;
    uint64_t some = s->size - s->sent;
    if (some > size) some = size;
    s->sent += (size_t)some;
    size -= some;
    while (s->chunk && size) {
      some = s->ranges[s->range].length - s->in_range;
      if (some > s->chunk) some = s->chunk;
      if (some > size) some = size;
      s->in_range += some;
      s->chunk -= some;
      size -= some;
      if (s->in_range == s->ranges[s->range].length) s->range++, s->in_range = 0;
    }
    if (s->sent < s->size || s->chunk || s->left) return;
    link->sending = s->next;
    if (!link->sending) link->sending_end = &link->sending;
    packbuf_i_sending_free(link, s);
  }
}

/* Says why, and ends once that has gone. */
static void packbuf_i_link_bye(packbuf_i_link *link, packbuf_status status, const char *text) {
  uint8_t frame[PACKBUF_I_FRAME_HEADER + 260];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  if (link->state == PACKBUF_I_LINK_ENDING) return;
  packbuf_i_bye_write(&body, status, text);
  packbuf_i_link_send(link, frame, packbuf_i_frame_end(frame, &body, PACKBUF_I_BYE, 0, 0, 0));
  link->state = PACKBUF_I_LINK_ENDING;
  if (status) packbuf_i_service_log(link->service, PACKBUF_LOG_INFO, text);
}

/* A frame of a type alone. */
static void packbuf_i_link_say(packbuf_i_link *link, unsigned type, uint64_t request) {
  uint8_t frame[PACKBUF_I_FRAME_HEADER];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  packbuf_i_link_send(link, frame, packbuf_i_frame_end(frame, &body, type, 0, request, 0));
}

/* ---- the bytes that a client's objects take ---- */

/* What one handle of a client has put, by however many connections. Kept only where there is a quota. */
typedef struct packbuf_i_owned {
  char key[PACKBUF_MAX_KEY + 1];
  uint64_t generation, size;
} packbuf_i_owned;

typedef struct packbuf_i_account {
  struct packbuf_i_account *next;
  uint8_t session[16];
  uint64_t quota, used, links; /* used: with what is being put */
  packbuf_i_owned *owned;
  size_t count, room;
} packbuf_i_account;

/* The account of a session; NULL: it needs none, or (*failed) there is no memory. */
static packbuf_i_account *packbuf_i_account_open(packbuf_i_service *service, const packbuf_i_hello *hello,
                                                 int *failed) {
  uint64_t quota = service->quota ? service->quota : UINT64_MAX;
  packbuf_i_account *account;
  *failed = 0;
  if (hello->quota && hello->quota < quota) quota = hello->quota;
  if (quota == UINT64_MAX) return NULL;
  packbuf_i_locked(&service->lock);
  for (account = service->accounts; account; account = account->next)
    if (memcmp(account->session, hello->session, sizeof account->session) == 0) break;
  if (!account) {
    account = (packbuf_i_account *)packbuf_i_heap(&service->allocator, NULL, 0, sizeof *account);
    if (account) {
      memcpy(account->session, hello->session, sizeof account->session);
      account->quota = quota;
      account->next = service->accounts;
      service->accounts = account;
    } else *failed = 1;
  }
  if (account) account->links++;
  packbuf_i_unlocked(&service->lock);
  return account;
}

static void packbuf_i_account_close(packbuf_i_service *service, packbuf_i_account *account) {
  packbuf_i_account **at = &service->accounts;
  if (!account) return;
  packbuf_i_locked(&service->lock);
  if (--account->links == 0) {
    while (*at != account) at = &(*at)->next;
    *at = account->next;
    (void)packbuf_i_heap(&service->allocator, account->owned, account->room * sizeof *account->owned, 0);
    (void)packbuf_i_heap(&service->allocator, account, sizeof *account, 0);
  }
  packbuf_i_unlocked(&service->lock);
}

/* Strikes out what is no longer there. With the lock held. */
static void packbuf_i_account_count(packbuf_i_service *service, packbuf_i_account *account) {
  size_t kept = 0;
  for (size_t i = 0; i < account->count; i++) {
    packbuf_item item;
    memset(&item, 0, sizeof item);
    item.key = account->owned[i].key;
    item.generation = account->owned[i].generation;
    (void)packbuf_batch_stat(service->store, &item, 1, PACKBUF_NO_WAIT, NULL);
    if (item.status == PACKBUF_NOT_FOUND || item.status == PACKBUF_STALE) account->used -= account->owned[i].size;
    else account->owned[kept++] = account->owned[i];
  }
  account->count = kept;
}

/* Charges bytes. 0: the quota does not allow it. */
static int packbuf_i_account_charge(packbuf_i_link *link, packbuf_i_job *work) {
  packbuf_i_account *account = link->account;
  int good;
  if (!account) return 1;
  packbuf_i_locked(&link->service->lock);
  good = work->size <= account->quota;
  if (good && account->used > account->quota - work->size) {
    packbuf_i_account_count(link->service, account);
    good = account->used <= account->quota - work->size;
  }
  if (good) account->used += work->size, work->charged = work->size;
  packbuf_i_unlocked(&link->service->lock);
  return good;
}

/* What was charged for is an object now, or (generation 0) is not. */
static void packbuf_i_account_settle(packbuf_i_link *link, packbuf_i_job *work, uint64_t generation) {
  packbuf_i_account *account = link->account;
  packbuf_i_owned *owned;
  if (!account || !work->charged) return;
  packbuf_i_locked(&link->service->lock);
  if (generation && account->count == account->room) {
    const size_t room = account->room ? 2 * account->room : 16;
    owned = (packbuf_i_owned *)packbuf_i_heap(&link->service->allocator, account->owned, account->room * sizeof *owned,
                                              room * sizeof *owned);
    if (owned) account->owned = owned, account->room = room;
  }
  if (generation && account->count < account->room) {
    owned = &account->owned[account->count++];
    memcpy(owned->key, work->key, strlen(work->key) + 1);
    owned->generation = generation;
    owned->size = work->charged;
  } else account->used -= work->charged;
  work->charged = 0;
  packbuf_i_unlocked(&link->service->lock);
}

/* ---- results ---- */

/* Results of items, gathered to a frame. */
typedef struct packbuf_i_results {
  packbuf_i_link *link;
  packbuf_i_wire_to body;
  uint64_t request, count;
} packbuf_i_results;

static void packbuf_i_results_begin(packbuf_i_results *results, packbuf_i_link *link, uint64_t request) {
  results->link = link;
  results->request = request;
  results->count = 0;
  results->body = packbuf_i_frame_body(link->group->frame, sizeof link->group->frame);
}

static void packbuf_i_results_end(packbuf_i_results *results) {
  uint8_t *frame = results->link->group->frame;
  if (!results->count) return;
  packbuf_i_link_send(
      results->link, frame,
      packbuf_i_frame_end(frame, &results->body, PACKBUF_I_RESULT, results->count, results->request, 0));
  packbuf_i_results_begin(results, results->link, results->request);
}

static void packbuf_i_results_add(packbuf_i_results *results, uint64_t index, packbuf_status status,
                                  const packbuf_stat *stat, uint64_t follows) {
  packbuf_i_result result;
  result.index = (uint16_t)index;
  result.status = (uint16_t)status;
  result.follows = follows;
  result.stat = *stat;
  packbuf_i_result_write(&results->body, &result);
  if (status) PACKBUF_I_SERVED(results->link->service, failures, 1);
  if (++results->count == PACKBUF_I_GROUP) packbuf_i_results_end(results);
}

/* ---- puts and removes ---- */

static packbuf_i_request *packbuf_i_request_new(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body,
                                                uint64_t keys) {
  const size_t head = sizeof(packbuf_i_request) + frame->items * sizeof(packbuf_i_job);
  const size_t block = head + (size_t)keys + frame->items;
  packbuf_i_request *request = (packbuf_i_request *)packbuf_i_heap(&link->service->allocator, NULL, 0, block);
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  char *key = (char *)request + head;
  uint64_t left, now;
  if (!request) return NULL;
  request->block = block;
  request->id = frame->request;
  request->type = frame->type;
  request->count = request->left = frame->items;
  request->works = (packbuf_i_job *)(void *)(request + 1);
  left = packbuf_i_wire_take64(&reader);
  now = packbuf_now();
  request->deadline = left == 0                          ? (uint64_t)PACKBUF_NO_WAIT
                      : left > PACKBUF_FOREVER - 1 - now ? PACKBUF_FOREVER
                                                         : now + left;
  for (unsigned i = 0; i < frame->items; i++) {
    packbuf_i_job *work = &request->works[i];
    packbuf_i_asked asked;
    (void)packbuf_i_asked_read(&reader, frame->type, &asked);
    memcpy(key, asked.key, asked.key_size);
    work->key = key;
    key += asked.key_size + 1u;
    work->size = asked.size;
    work->generation = asked.generation;
    work->head_length = asked.head_length;
    work->head_checksum = asked.head_checksum;
    work->flags = asked.flags;
    work->ttl_ms = asked.ttl_ms;
    work->kind = asked.kind;
    work->eager = asked.eager;
    work->status = PACKBUF_FULL;
    if (asked.fingerprint) memcpy(work->fingerprint, asked.fingerprint, PACKBUF_FINGERPRINT);
  }
  request->next = link->requests;
  link->requests = request;
  link->request_count++;
  return request;
}

/* Takes an item's memory back, and all that it holds. */
static void packbuf_i_work_end(packbuf_i_link *link, packbuf_i_request *request, packbuf_i_job *work) {
  packbuf_slice_release(&work->slice);
  packbuf_i_account_settle(link, work, request->type == PACKBUF_I_PUT && !work->status ? work->stat.generation : 0);
  work->state = PACKBUF_I_WORK_DONE;
  request->left--;
}

static void packbuf_i_work_answer(packbuf_i_results *results, packbuf_i_request *request, packbuf_i_job *work,
                                  packbuf_status status) {
  work->status = status;
  packbuf_i_work_end(results->link, request, work);
  packbuf_i_results_add(results, (uint64_t)(work - request->works), status, &work->stat, 0);
}

static void packbuf_i_request_free(packbuf_i_link *link, packbuf_i_request *request) {
  packbuf_i_request **at = &link->requests;
  while (*at != request) at = &(*at)->next;
  *at = request->next;
  link->request_count--;
  if (link->receiving == request) link->receiving = NULL;
  for (unsigned i = 0; i < request->count; i++) {
    if (request->works[i].state == PACKBUF_I_WORK_DONE) continue;
    if (request->works[i].slice.data) PACKBUF_I_SERVED(link->service, recovered, 1);
    request->works[i].status = PACKBUF_DISCONNECTED;
    packbuf_i_work_end(link, request, &request->works[i]);
  }
  (void)packbuf_i_heap(&link->service->allocator, request, request->block, 0);
}

/* Room for one item. OK: it has it; FULL, QUOTA: not now; else never. */
static packbuf_status packbuf_i_work_reserve(packbuf_i_link *link, packbuf_i_job *work) {
  packbuf_status status;
  if (!packbuf_i_account_charge(link, work)) return PACKBUF_QUOTA;
  if (!work->size) {
    work->state = PACKBUF_I_WORK_READY;
    link->ready = 1;
    return PACKBUF_OK;
  }
  status = packbuf_reserve(link->service->store, 0, &work->size, 1, PACKBUF_NO_WAIT, &work->slice, NULL);
  if (status) packbuf_i_account_settle(link, work, 0);
  else work->state = PACKBUF_I_WORK_FILLS;
  return status;
}

static int packbuf_i_for_room(packbuf_status status) { return status == PACKBUF_FULL || status == PACKBUF_QUOTA; }

/* Asks for room for the items that wait for it, until one gets none; says which may be sent. first: those whose bytes
 * are coming anyway need not be told, and every one is asked for. */
static void packbuf_i_request_grant(packbuf_i_link *link, packbuf_i_request *request, int first) {
  const int late = packbuf_now() >= request->deadline;
  packbuf_i_results results;
  uint8_t frame[PACKBUF_I_FRAME_HEADER + 2 * PACKBUF_I_GROUP];
  packbuf_i_wire_to body = packbuf_i_frame_body(frame, sizeof frame);
  uint64_t granted = 0;
  int refused = 0;
  packbuf_i_results_begin(&results, link, request->id);
  for (unsigned i = 0; i < request->count; i++) {
    packbuf_i_job *work = &request->works[i];
    if (work->state != PACKBUF_I_WORK_WAITS) continue;
    if (first || !refused) {
      work->status = packbuf_i_work_reserve(link, work);
      refused = work->status != PACKBUF_OK;
    }
    if (work->state == PACKBUF_I_WORK_WAITS && (late || !packbuf_i_for_room(work->status))) {
      packbuf_i_work_answer(&results, request, work, work->status);
    } else if (work->state == PACKBUF_I_WORK_FILLS && !(first && work->eager)) {
      packbuf_i_wire_give16(&body, (uint16_t)i);
      if (++granted == PACKBUF_I_GROUP) {
        packbuf_i_link_send(link, frame, packbuf_i_frame_end(frame, &body, PACKBUF_I_GRANT, granted, request->id, 0));
        body = packbuf_i_frame_body(frame, sizeof frame);
        granted = 0;
      }
    }
  }
  if (granted)
    packbuf_i_link_send(link, frame, packbuf_i_frame_end(frame, &body, PACKBUF_I_GRANT, granted, request->id, 0));
  packbuf_i_results_end(&results);
}

/* Puts a group of items whose bytes are all here. */
static void packbuf_i_group_put(packbuf_i_link *link, packbuf_i_request *request, unsigned count) {
  packbuf_i_group *group = link->group;
  const int late = packbuf_now() >= request->deadline;
  packbuf_i_results results;
  for (unsigned i = 0; i < count; i++) {
    packbuf_i_job *work = group->works[i];
    packbuf_item *item = &group->items[i];
    packbuf_ref *about = &group->about[i];
    memset(item, 0, sizeof *item);
    memset(about, 0, sizeof *about);
    about->kind = work->kind;
    about->head_length = work->head_length;
    about->head_checksum = work->head_checksum;
    memcpy(about->fingerprint, work->fingerprint, PACKBUF_FINGERPRINT);
    item->key = work->key;
    item->from = work->slice.data;
    item->size = work->size;
    item->slice = work->size ? &work->slice : NULL;
    item->about = about;
    item->flags = work->flags;
    item->ttl_ms = work->ttl_ms;
  }
  (void)packbuf_batch_put(link->service->store, group->items, count, PACKBUF_NO_WAIT, NULL);
  packbuf_i_results_begin(&results, link, request->id);
  for (unsigned i = 0; i < count; i++) {
    packbuf_i_job *work = group->works[i];
    const packbuf_status status = group->items[i].status;
    work->status = status;
    if (packbuf_i_for_room(status) && !late) continue;
    work->stat = group->items[i].stat;
    if (!status) {
      PACKBUF_I_SERVED(link->service, puts, 1);
      PACKBUF_I_SERVED(link->service, bytes_put, work->size);
    }
    packbuf_i_work_answer(&results, request, work, status);
  }
  packbuf_i_results_end(&results);
}

/* Puts what is whole; ends the requests that are answered. */
static void packbuf_i_link_publish(packbuf_i_link *link) {
  packbuf_i_request *request = link->requests, *next;
  link->ready = 0;
  for (; request; request = next) {
    unsigned count = 0;
    next = request->next;
    for (unsigned i = 0; i < request->count; i++) {
      if (request->works[i].state != PACKBUF_I_WORK_READY) continue;
      link->group->works[count++] = &request->works[i];
      if (count < PACKBUF_I_GROUP) continue;
      packbuf_i_group_put(link, request, count);
      count = 0;
    }
    if (count) packbuf_i_group_put(link, request, count);
    if (!request->left) packbuf_i_request_free(link, request);
  }
}

/* Removes what has not been removed; what leases delay is asked for again, by its generation, until they have ended. */
static void packbuf_i_request_remove(packbuf_i_link *link, packbuf_i_request *request) {
  packbuf_i_group *group = link->group;
  const int late = packbuf_now() >= request->deadline;
  unsigned from = 0;
  while (from < request->count) {
    packbuf_i_results results;
    unsigned count = 0;
    for (; from < request->count && count < PACKBUF_I_GROUP; from++) {
      packbuf_i_job *work = &request->works[from];
      packbuf_item *item = &group->items[count];
      if (work->state == PACKBUF_I_WORK_DONE) continue;
      memset(item, 0, sizeof *item);
      item->key = work->key;
      item->generation = work->generation;
      item->flags = work->flags;
      group->works[count++] = work;
    }
    if (!count) return;
    (void)packbuf_batch_remove(link->service->store, group->items, count, PACKBUF_NO_WAIT, NULL);
    packbuf_i_results_begin(&results, link, request->id);
    for (unsigned i = 0; i < count; i++) {
      packbuf_i_job *work = group->works[i];
      packbuf_status status = group->items[i].status;
      const int again = work->state == PACKBUF_I_WORK_LEASED;
      if (!again) work->stat = group->items[i].stat;
      if (again && status != PACKBUF_LEASED) status = PACKBUF_OK; /* it is gone, and so are its leases */
      if (!status) PACKBUF_I_SERVED(link->service, removes, 1);
      if (status == PACKBUF_LEASED && !late) {
        if (!again && work->stat.generation) work->generation = work->stat.generation;
        work->status = PACKBUF_LEASED;
        work->state = PACKBUF_I_WORK_LEASED;
      } else packbuf_i_work_answer(&results, request, work, status);
    }
    packbuf_i_results_end(&results);
  }
}

/* ---- gets and stats ---- */

/* What a get of one item is answered with: bytes that follow, or the status why none do. */
static packbuf_status packbuf_i_answer_size(const packbuf_i_asked *asked, uint64_t length, uint64_t *total) {
  *total = asked->ranged ? 0 : length;
  for (uint64_t i = 0; i < asked->range_count; i++) {
    const packbuf_range range = packbuf_i_asked_range(asked->ranges, i);
    if (range.offset > length || range.length > length - range.offset) return PACKBUF_OUT_OF_RANGE;
    *total += range.length;
    if (*total > (uint64_t)INT64_MAX) return PACKBUF_OUT_OF_RANGE;
  }
  return *total > asked->capacity ? PACKBUF_CAPACITY : PACKBUF_OK;
}

/* Answers `count` items that begin where `reader` stands. */
static void packbuf_i_group_look(packbuf_i_link *link, const packbuf_i_frame *frame, packbuf_i_wire_from *reader,
                                 unsigned from, unsigned count) {
  packbuf_i_group *group = link->group;
  packbuf_i_wire_from again = *reader;
  packbuf_i_results results;
  packbuf_i_asked asked;
  uint64_t totals[PACKBUF_I_GROUP];
  for (unsigned i = 0; i < count; i++) {
    packbuf_item *item = &group->items[i];
    (void)packbuf_i_asked_read(reader, frame->type, &asked);
    memset(item, 0, sizeof *item);
    memcpy(group->keys[i], asked.key, asked.key_size);
    group->keys[i][asked.key_size] = 0;
    item->key = group->keys[i];
    item->generation = asked.generation;
  }
  if (frame->type == PACKBUF_I_GET)
    (void)packbuf_batch_get(link->service->store, group->items, count, PACKBUF_NO_WAIT, NULL);
  else (void)packbuf_batch_stat(link->service->store, group->items, count, PACKBUF_NO_WAIT, NULL);
  packbuf_i_results_begin(&results, link, frame->request);
  *reader = again;
  for (unsigned i = 0; i < count; i++) {
    packbuf_item *item = &group->items[i];
    (void)packbuf_i_asked_read(reader, frame->type, &asked);
    totals[i] = 0;
    if (frame->type == PACKBUF_I_GET && !item->status) {
      item->status = packbuf_i_answer_size(&asked, item->stat.length, &totals[i]);
      PACKBUF_I_SERVED(link->service, gets, item->status ? 0 : 1);
    }
    if (item->status) totals[i] = 0;
    packbuf_i_results_add(&results, from + i, item->status, &item->stat, totals[i]);
  }
  packbuf_i_results_end(&results);
  if (frame->type != PACKBUF_I_GET) return;
  *reader = again;
  for (unsigned i = 0; i < count; i++) {
    packbuf_item *item = &group->items[i];
    (void)packbuf_i_asked_read(reader, frame->type, &asked);
    PACKBUF_I_SERVED(link->service, bytes_got, totals[i]);
    if (totals[i])
      packbuf_i_link_send_object(link, frame->request, (uint16_t)(from + i), &item->lease,
                                 asked.ranged ? asked.ranges : NULL, asked.ranged ? asked.range_count : 1, totals[i]);
    packbuf_lease_release(&item->lease);
  }
}

static void packbuf_i_link_look(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  (void)packbuf_i_wire_take64(&reader);
  for (unsigned from = 0; from < frame->items; from += PACKBUF_I_GROUP) {
    const unsigned left = frame->items - from, count = left < PACKBUF_I_GROUP ? left : (unsigned)PACKBUF_I_GROUP;
    packbuf_i_group_look(link, frame, &reader, from, count);
  }
}

static const char *packbuf_i_link_list(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *from) {
  packbuf_i_service *service = link->service;
  const packbuf_allocator *heap = &service->allocator;
  packbuf_i_list_ask ask;
  packbuf_i_listing listing;
  packbuf_store_info info;
  packbuf_i_wire_to body;
  packbuf_listed *listed;
  uint8_t *bytes;
  uint64_t count = 0;
  size_t listed_size, size;
  const char *why = packbuf_i_list_read(frame, from, &ask);
  if (why) return why;
  if (ask.most > PACKBUF_I_LISTED_MOST) ask.most = PACKBUF_I_LISTED_MOST;
  memset(&listing, 0, sizeof listing);
  listed_size = (ask.most + 1u) * sizeof *listed;
  size = PACKBUF_I_FRAME_HEADER + PACKBUF_I_LISTED_SIZE + ask.most * (PACKBUF_I_LISTED_ENTRY + PACKBUF_MAX_KEY);
  listed = (packbuf_listed *)packbuf_i_heap(heap, NULL, 0, listed_size);
  bytes = (uint8_t *)packbuf_i_heap(heap, NULL, 0, size);
  if (listed && bytes) {
    packbuf_status status = PACKBUF_OK;
    listing.cursor = ask.cursor;
    if (ask.options & PACKBUF_I_LIST_COLLECT)
      (void)packbuf_store_collect(service->store, PACKBUF_NO_WAIT, &listing.left, NULL);
    if (ask.most)
      status = packbuf_store_list(service->store, ask.prefix[0] ? ask.prefix : NULL, &listing.cursor, listed, ask.most,
                                  &count, PACKBUF_NO_WAIT, NULL);
    if (!status) status = packbuf_store_describe(service->store, &info, PACKBUF_NO_WAIT, NULL);
    if (status) count = 0, memset(&info, 0, sizeof info);
    listing.status = (uint16_t)status;
    listing.size = info.size;
    listing.used = info.used;
    listing.objects = info.objects;
    listing.most_objects = info.most_objects;
    body = packbuf_i_frame_body(bytes, size);
    packbuf_i_listing_write(&body, &listing);
    for (uint64_t i = 0; i < count; i++) packbuf_i_listed_write(&body, &listed[i]);
    packbuf_i_link_send(link, bytes, packbuf_i_frame_end(bytes, &body, PACKBUF_I_LISTED, count, frame->request, 0));
  }
  why = listed && bytes ? NULL : packbuf_i_frame_memory;
  (void)packbuf_i_heap(heap, listed, listed_size, 0);
  (void)packbuf_i_heap(heap, bytes, size, 0);
  return why;
}

/* ---- frames that come ---- */

static packbuf_i_request *packbuf_i_link_request(packbuf_i_link *link, uint64_t id) {
  packbuf_i_request *request = link->requests;
  while (request && request->id != id) request = request->next;
  return request;
}

static const char *packbuf_i_link_hello(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *from) {
  packbuf_i_service *service = link->service;
  uint8_t bytes[PACKBUF_I_FRAME_HEADER + sizeof link->welcome];
  packbuf_i_hello hello;
  packbuf_i_welcome welcome;
  packbuf_i_wire_to body;
  size_t size;
  int failed;
  const char *why = packbuf_i_hello_read(frame, from, &hello);
  if (why) return why;
  if (hello.least > PACKBUF_I_FRAME_VERSION) {
    packbuf_i_link_bye(link, PACKBUF_UNSUPPORTED_VERSION, "this server speaks version 1");
    return NULL;
  }
  memset(&welcome, 0, sizeof welcome);
  welcome.version = PACKBUF_I_FRAME_VERSION;
  welcome.proof = service->secret_size != 0;
  welcome.most_items = PACKBUF_I_FRAME_ITEMS;
  welcome.most_requests = PACKBUF_I_REQUESTS;
  welcome.eager_item = PACKBUF_I_EAGER_ITEM;
  welcome.eager_all = PACKBUF_I_EAGER_ALL;
  welcome.capabilities = service->capabilities;
  memcpy(welcome.server, service->id, sizeof welcome.server);
  if (!packbuf_i_random(welcome.nonce, sizeof welcome.nonce)) return "no random bytes";
  body = packbuf_i_frame_body(bytes, sizeof bytes);
  packbuf_i_welcome_write(&body, &welcome);
  size = packbuf_i_frame_end(bytes, &body, PACKBUF_I_WELCOME, 0, frame->request, 0);
  packbuf_i_link_send(link, bytes, size);
  memcpy(link->hello, from, frame->body);
  link->hello_size = frame->body;
  link->welcome_size = size - PACKBUF_I_FRAME_HEADER;
  memcpy(link->welcome, bytes + PACKBUF_I_FRAME_HEADER, link->welcome_size);
  link->account = packbuf_i_account_open(service, &hello, &failed);
  if (failed) return packbuf_i_frame_memory;
  link->state = welcome.proof ? PACKBUF_I_LINK_PROOF : PACKBUF_I_LINK_OPEN;
  if (!welcome.proof) link->intake.most_body = PACKBUF_I_FRAME_BODY;
  return NULL;
}

static const char *packbuf_i_link_proof(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *from) {
  packbuf_i_service *service = link->service;
  uint8_t proof[32], bytes[PACKBUF_I_FRAME_HEADER + 32];
  packbuf_i_wire_to body = packbuf_i_frame_body(bytes, sizeof bytes);
  if (frame->body < sizeof proof) return packbuf_i_frame_short;
  packbuf_i_proof_make(service->secret, service->secret_size, 'C', link->hello, link->hello_size, link->welcome,
                       link->welcome_size, proof);
  if (!packbuf_i_secret_equal(proof, from, sizeof proof)) {
    link->denied = 1;
    packbuf_i_link_bye(link, PACKBUF_DENIED, "wrong secret");
    return NULL;
  }
  packbuf_i_proof_make(service->secret, service->secret_size, 'S', link->hello, link->hello_size, link->welcome,
                       link->welcome_size, proof);
  packbuf_i_wire_give(&body, proof, sizeof proof);
  packbuf_i_link_send(link, bytes, packbuf_i_frame_end(bytes, &body, PACKBUF_I_PROVEN, 0, frame->request, 0));
  link->state = PACKBUF_I_LINK_OPEN;
  link->intake.most_body = PACKBUF_I_FRAME_BODY;
  return NULL;
}

static const char *packbuf_i_link_put(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_request *request;
  uint64_t keys, ranges;
  const char *why = packbuf_i_request_check(frame, body, &keys, &ranges);
  if (why) return why;
  if (link->request_count == PACKBUF_I_REQUESTS) return "too many requests under way";
  if (packbuf_i_link_request(link, frame->request)) return "two requests of one number";
  request = packbuf_i_request_new(link, frame, body, keys);
  if (!request) return packbuf_i_frame_memory;
  if (frame->type == PACKBUF_I_REMOVE) {
    packbuf_i_request_remove(link, request);
    if (!request->left) packbuf_i_request_free(link, request);
    return NULL;
  }
  packbuf_i_request_grant(link, request, 1);
  link->ready = 1;
  link->receiving = request;
  link->eager = 1;
  link->at = 0;
  link->at_left = 0;
  return NULL;
}

static const char *packbuf_i_link_data(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_request *request = packbuf_i_link_request(link, frame->request);
  packbuf_i_job *work;
  uint64_t offset;
  uint16_t index;
  const char *why = packbuf_i_data_read(frame, body, &index, &offset);
  if (why) return why;
  link->receiving = NULL; /* of a request that has ended meanwhile: dropped */
  if (!request) return NULL;
  if (request->type != PACKBUF_I_PUT || index >= request->count) return "data of an item that was not granted";
  work = &request->works[index];
  if (work->state == PACKBUF_I_WORK_DONE) return NULL;
  if (work->state != PACKBUF_I_WORK_FILLS || offset != work->came || frame->payload > work->size - work->came)
    return "data of an item that was not granted";
  link->receiving = request;
  link->eager = 0;
  link->at = index;
  link->at_left = frame->payload;
  link->dropping = 0;
  return NULL;
}

static void packbuf_i_link_cancel(packbuf_i_link *link, uint64_t id) {
  packbuf_i_request *request = packbuf_i_link_request(link, id);
  packbuf_i_results results;
  if (!request) return; /* its results are on their way */
  packbuf_i_results_begin(&results, link, id);
  for (unsigned i = 0; i < request->count; i++) {
    packbuf_i_job *work = &request->works[i];
    if (work->state == PACKBUF_I_WORK_DONE) continue;
    packbuf_i_work_answer(&results, request, work,
                          work->state == PACKBUF_I_WORK_FILLS ? PACKBUF_CANCELLED : work->status);
  }
  packbuf_i_results_end(&results);
  packbuf_i_request_free(link, request);
}

static const char *packbuf_i_link_open_frame(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body) {
  uint64_t keys, ranges;
  const char *why;
  switch (frame->type) {
    case PACKBUF_I_PUT:
    case PACKBUF_I_REMOVE: return packbuf_i_link_put(link, frame, body);
    case PACKBUF_I_DATA: return packbuf_i_link_data(link, frame, body);
    case PACKBUF_I_GET:
    case PACKBUF_I_STAT:
      why = packbuf_i_request_check(frame, body, &keys, &ranges);
      if (!why) packbuf_i_link_look(link, frame, body);
      return why;
    case PACKBUF_I_LIST: return packbuf_i_link_list(link, frame, body);
    case PACKBUF_I_CANCEL: packbuf_i_link_cancel(link, frame->request); return NULL;
    case PACKBUF_I_PING: packbuf_i_link_say(link, PACKBUF_I_PONG, frame->request); return NULL;
    case PACKBUF_I_PONG: return NULL;
    case PACKBUF_I_BYE: link->dead = 1; return NULL;
    default: return "a frame that is not a client's";
  }
}

static const char *packbuf_i_link_frame(void *context, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_link *link = (packbuf_i_link *)context;
  link->receiving = NULL;
  if (link->state == PACKBUF_I_LINK_OPEN) return packbuf_i_link_open_frame(link, frame, body);
  if (link->state == PACKBUF_I_LINK_HELLO && frame->type == PACKBUF_I_HELLO)
    return packbuf_i_link_hello(link, frame, body);
  if (link->state == PACKBUF_I_LINK_PROOF && frame->type == PACKBUF_I_PROOF)
    return packbuf_i_link_proof(link, frame, body);
  if (link->state == PACKBUF_I_LINK_ENDING) return NULL;
  if (frame->type == PACKBUF_I_BYE) {
    link->dead = 1;
    return NULL;
  }
  return link->state == PACKBUF_I_LINK_HELLO ? "a connection begins with HELLO" : "a proof was asked for";
}

/* ---- payload that comes ---- */

static uint8_t *packbuf_i_link_place(void *context, uint64_t *size) {
  packbuf_i_link *link = (packbuf_i_link *)context;
  packbuf_i_request *request = link->receiving;
  packbuf_i_job *work;
  if (!request) return NULL;
  while (!link->at_left && link->at < request->count) { /* the next item whose bytes follow a PUT */
    work = &request->works[link->at];
    link->at_left = work->eager ? work->size : 0;
    link->dropping = work->state != PACKBUF_I_WORK_FILLS;
    if (!link->at_left) link->at++;
  }
  if (!link->at_left) return NULL;
  work = &request->works[link->at];
  if (*size > link->at_left) *size = link->at_left;
  return link->dropping || work->state != PACKBUF_I_WORK_FILLS ? NULL : (uint8_t *)work->slice.data + work->came;
}

static const char *packbuf_i_link_placed(void *context, uint64_t size) {
  packbuf_i_link *link = (packbuf_i_link *)context;
  packbuf_i_request *request = link->receiving;
  packbuf_i_job *work;
  if (!request || !link->at_left) return NULL;
  work = &request->works[link->at];
  link->at_left -= size;
  if (!link->dropping && work->state == PACKBUF_I_WORK_FILLS) {
    work->came += size;
    if (work->came == work->size) {
      work->state = PACKBUF_I_WORK_READY;
      link->ready = 1;
    }
  }
  if (!link->at_left && link->eager) link->at++;
  return NULL;
}

static const packbuf_i_intake_taker packbuf_i_link_taker = {packbuf_i_link_frame, packbuf_i_link_place,
                                                            packbuf_i_link_placed};

/* ---- a connection without its socket ---- */

static void packbuf_i_link_start(packbuf_i_link *link, packbuf_i_service *service, packbuf_i_group *group) {
  memset(link, 0, sizeof *link);
  link->service = service;
  link->group = group;
  link->sending_end = &link->sending;
  link->fd = -1;
  link->intake.taker = &packbuf_i_link_taker;
  link->intake.context = link;
  link->intake.allocator = service->allocator;
  link->intake.most_body = PACKBUF_I_FRAME_GREETING;
  link->born = link->came = link->moved = packbuf_now();
}

static void packbuf_i_link_wait(packbuf_i_link *link, unsigned waiting) {
  if (link->waiting == waiting) return;
  link->waiting = waiting;
  if (waiting) {
    PACKBUF_I_SERVED(link->service, waits, 1);
    (void)PACKBUF_I_ADD(&link->service->wanting, 1);
  } else (void)PACKBUF_I_SUBTRACT(&link->service->wanting, 1);
}

/* Takes back all that a connection holds. */
static void packbuf_i_link_end(packbuf_i_link *link) {
  packbuf_i_link_wait(link, 0);
  while (link->requests) packbuf_i_request_free(link, link->requests);
  while (link->sending) {
    packbuf_i_outgoing *next = link->sending->next;
    packbuf_i_sending_free(link, link->sending);
    link->sending = next;
  }
  packbuf_i_account_close(link->service, link->account);
  packbuf_i_intake_end(&link->intake);
}

/* What follows from what came: puts, and whether it waits now. why: what is wrong with it. */
static void packbuf_i_link_came(packbuf_i_link *link, const char *why) {
  unsigned waits = 0;
  if (why) packbuf_i_link_bye(link, packbuf_i_frame_status(why), why);
  if (link->state == PACKBUF_I_LINK_ENDING)
    while (link->requests) packbuf_i_request_free(link, link->requests);
  if (link->ready) packbuf_i_link_publish(link);
  for (const packbuf_i_request *r = link->requests; r && !waits; r = r->next)
    for (unsigned i = 0; i < r->count && !waits; i++)
      waits = r->works[i].state != PACKBUF_I_WORK_DONE && r->works[i].state != PACKBUF_I_WORK_FILLS;
  packbuf_i_link_wait(link, waits);
}

/* Bytes of a client. */
static void packbuf_i_link_feed(packbuf_i_link *link, const uint8_t *bytes, size_t size) {
  if (link->state == PACKBUF_I_LINK_ENDING) return;
  PACKBUF_I_SERVED(link->service, bytes_moved, size);
  packbuf_i_link_came(link, packbuf_i_intake_feed(&link->intake, bytes, size));
}

/* Time has passed, or room has come: tries again what waits, and ends what has waited long enough. */
static void packbuf_i_link_tick(packbuf_i_link *link, uint64_t now) {
  packbuf_i_request *request = link->requests, *next;
  for (; request; request = next) {
    packbuf_i_results results;
    next = request->next;
    if (request->type == PACKBUF_I_REMOVE) packbuf_i_request_remove(link, request);
    else packbuf_i_request_grant(link, request, 0);
    packbuf_i_results_begin(&results, link, request->id);
    for (unsigned i = 0; now >= request->deadline && request->deadline && i < request->count; i++)
      if (request->works[i].state == PACKBUF_I_WORK_FILLS)
        packbuf_i_work_answer(&results, request, &request->works[i], PACKBUF_TIMEOUT);
    packbuf_i_results_end(&results);
  }
  packbuf_i_link_publish(link);
  packbuf_i_link_came(link, NULL);
}

/* ---- sockets ---- */

#if defined(__linux__)

enum { PACKBUF_I_STAGE = 65536, PACKBUF_I_STRAIGHT = 16384, PACKBUF_I_PIECES = 256, PACKBUF_I_ROUNDS = 16 };

#define PACKBUF_I_TICK_NS 20000000u         /* how often room is asked for again */
#define PACKBUF_I_SWEEP_NS 500000000u       /* how often connections are looked at that do nothing */
#define PACKBUF_I_GREETING_NS 10000000000u  /* to say HELLO and PROOF */
#define PACKBUF_I_SILENCE_NS 10000000000u   /* after which a client with a request under way is asked */
#define PACKBUF_I_DEAD_NS 30000000000u      /* and taken for dead */
#define PACKBUF_I_DENIED_NS 1000000000u     /* that an address waits which failed three times */
#define PACKBUF_I_LAST_WORDS_NS 1000000000u /* to take the BYE */

typedef struct packbuf_i_loop {
  struct packbuf_server *server;
  int epoll, wake;
  pthread_t thread;
  int running;
  packbuf_i_lock lock;             /* of what comes in */
  packbuf_i_link *incoming, links; /* links: a ring */
  uint64_t count;                  /* of links (atomic) */
  packbuf_i_group group;
  struct iovec pieces[PACKBUF_I_PIECES];
  uint8_t stage[PACKBUF_I_STAGE];
} packbuf_i_loop;

enum { PACKBUF_I_SUSPECTS = 256 };

struct packbuf_server {
  packbuf_i_service service;
  packbuf_i_loop *loops;
  unsigned loop_count, most;
  int listener, metrics;
  uint64_t connections;                  /* (atomic) */
  uint32_t stopping;                     /* 1: no more; 2: at once (atomic) */
  uint32_t failures[PACKBUF_I_SUSPECTS]; /* proofs that failed, by a hash of the address (atomic) */
  char uri[PACKBUF_MAX_URI + 1];
};

/* transport/metrics.c */
static void packbuf_i_metrics_feed(packbuf_server *server, packbuf_i_link *link, const uint8_t *bytes, size_t size);

static void packbuf_i_loop_wake(packbuf_i_loop *loop) {
  const uint64_t one = 1;
  ssize_t done = write(loop->wake, &one, sizeof one);
  (void)done; /* full: it is awake */
}

static void packbuf_i_link_close(packbuf_i_loop *loop, packbuf_i_link *link) {
  packbuf_server *server = loop->server;
  link->before->after = link->after;
  link->after->before = link->before;
  /* a child after fork may have it too: then closing alone neither ends the connection nor takes it from the epoll,
   * which would go on to name a link that is freed */
  (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, link->fd, NULL);
  (void)shutdown(link->fd, SHUT_RDWR);
  (void)close(link->fd);
  if (link->denied) (void)PACKBUF_I_ADD(&server->failures[link->failures_at], 1);
  packbuf_i_link_end(link);
  (void)packbuf_i_heap(&server->service.allocator, link, sizeof *link, 0);
  (void)PACKBUF_I_SUBTRACT(&loop->count, 1);
  (void)PACKBUF_I_SUBTRACT(&server->connections, 1);
}

/* A connection that was accepted goes to the loop that has the fewest. */
static void packbuf_i_server_take(packbuf_server *server, int fd, const packbuf_i_address *from, int http) {
  packbuf_i_loop *loop = &server->loops[0];
  packbuf_i_link *link = NULL;
  if (PACKBUF_I_ADD(&server->connections, 1) < server->most && packbuf_i_socket_prepare(fd))
    link = (packbuf_i_link *)packbuf_i_heap(&server->service.allocator, NULL, 0, sizeof *link);
  if (!link) {
    (void)close(fd);
    (void)PACKBUF_I_SUBTRACT(&server->connections, 1);
    return;
  }
  for (unsigned i = 1; i < server->loop_count; i++)
    if (PACKBUF_I_LOAD(&server->loops[i].count) < PACKBUF_I_LOAD(&loop->count)) loop = &server->loops[i];
  packbuf_i_link_start(link, &server->service, &loop->group);
  link->fd = fd;
  link->http = http;
  link->failures_at = packbuf_i_address_hash(from) % PACKBUF_I_SUSPECTS;
  if (PACKBUF_I_LOAD(&server->failures[link->failures_at]) >= 3) link->held = link->born + PACKBUF_I_DENIED_NS;
  (void)PACKBUF_I_ADD(&loop->count, 1);
  packbuf_i_locked(&loop->lock);
  link->after = loop->incoming;
  loop->incoming = link;
  packbuf_i_unlocked(&loop->lock);
  packbuf_i_loop_wake(loop);
}

static void packbuf_i_server_accept(packbuf_server *server, int listener) {
  for (int i = 0; i < 64; i++) {
    packbuf_i_address from;
    int fd;
    from.size = sizeof from.as;
    fd = accept4(listener, &from.as.any, &from.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    packbuf_i_server_take(server, fd, &from, listener == server->metrics);
  }
}

static void packbuf_i_loop_take(packbuf_i_loop *loop) {
  uint64_t drained;
  ssize_t done = read(loop->wake, &drained, sizeof drained);
  packbuf_i_link *link;
  (void)done;
  packbuf_i_locked(&loop->lock);
  link = loop->incoming;
  loop->incoming = NULL;
  packbuf_i_unlocked(&loop->lock);
  while (link) {
    packbuf_i_link *next = link->after;
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.data.ptr = link;
    event.events = link->events = link->held ? 0u : (unsigned)EPOLLIN;
    link->before = loop->links.before;
    link->after = &loop->links;
    link->before->after = link->after->before = link;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, link->fd, &event) != 0) packbuf_i_link_close(loop, link);
    link = next;
  }
}

/* ---- one connection ---- */

static void packbuf_i_link_write(packbuf_i_loop *loop, packbuf_i_link *link) {
  for (int i = 0; i < PACKBUF_I_ROUNDS && link->sending && !link->dead; i++) {
    struct msghdr message;
    ssize_t done;
    memset(&message, 0, sizeof message);
    message.msg_iov = loop->pieces;
    message.msg_iovlen = packbuf_i_link_pieces(link, loop->pieces, PACKBUF_I_PIECES);
    done = sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done < 0) {
      if (errno != EAGAIN && errno != EINTR) link->dead = 1;
      return;
    }
    link->moved = packbuf_now();
    packbuf_i_link_went(link, (uint64_t)done);
  }
}

/* One read. 0: there is no more just now. */
static int packbuf_i_link_read_some(packbuf_i_loop *loop, packbuf_i_link *link) {
  uint64_t room = 0;
  uint8_t *to = NULL;
  ssize_t came;
  if (link->intake.payload >= PACKBUF_I_STRAIGHT) to = packbuf_i_intake_place(&link->intake, &room);
  if (room < PACKBUF_I_STRAIGHT) to = NULL;
  if (room > PACKBUF_I_CHUNK_OUT) room = PACKBUF_I_CHUNK_OUT;
  if (!to) room = sizeof loop->stage;
  came = recv(link->fd, to ? to : loop->stage, (size_t)room, MSG_DONTWAIT);
  if (came < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (came <= 0) {
    link->dead = 1;
    return 0;
  }
  link->came = link->moved = packbuf_now();
  if (link->http) packbuf_i_metrics_feed(loop->server, link, loop->stage, (size_t)came);
  else if (to) {
    PACKBUF_I_SERVED(link->service, bytes_moved, came);
    packbuf_i_link_came(link, packbuf_i_intake_came(&link->intake, (uint64_t)came));
  } else packbuf_i_link_feed(link, loop->stage, (size_t)came);
  return (uint64_t)came == room;
}

/* Reads and writes what can be, and says what to be woken for. */
static void packbuf_i_link_run(packbuf_i_loop *loop, packbuf_i_link *link, unsigned happened) {
  packbuf_server *server = loop->server;
  struct epoll_event event;
  if (happened & (EPOLLIN | EPOLLHUP | EPOLLERR))
    for (int i = 0; i < PACKBUF_I_ROUNDS && !link->dead && link->queued < PACKBUF_I_QUEUED; i++)
      if (!packbuf_i_link_read_some(loop, link)) break;
  if (link->state == PACKBUF_I_LINK_OPEN && !link->known) { /* who knows the secret is no suspect */
    link->known = 1;
    PACKBUF_I_STORE(&server->failures[link->failures_at], 0);
  }
  packbuf_i_link_write(loop, link);
  if (link->dead || (link->state == PACKBUF_I_LINK_ENDING && !link->sending)) {
    packbuf_i_link_close(loop, link);
    return;
  }
  memset(&event, 0, sizeof event);
  event.data.ptr = link;
  event.events = link->sending ? (unsigned)EPOLLOUT : 0u;
  if (link->queued < PACKBUF_I_QUEUED && !link->held) event.events |= (unsigned)EPOLLIN;
  if (event.events == link->events) return;
  link->events = event.events;
  (void)epoll_ctl(loop->epoll, EPOLL_CTL_MOD, link->fd, &event);
}

/* Whether it holds memory that others may want. */
static int packbuf_i_link_holds(const packbuf_i_link *link) {
  if (link->sending) return 1;
  for (const packbuf_i_request *r = link->requests; r; r = r->next)
    for (unsigned i = 0; i < r->count; i++)
      if (r->works[i].state == PACKBUF_I_WORK_FILLS) return 1;
  return 0;
}

/* Ends what is dead, too slow or too silent. */
static void packbuf_i_link_look_at(packbuf_i_link *link, uint64_t now) {
  packbuf_i_service *service = link->service;
  const int busy = link->sending || link->requests;
  if (link->state == PACKBUF_I_LINK_ENDING || link->http) {
    if (now - link->moved > PACKBUF_I_LAST_WORDS_NS) link->dead = 1;
  } else if (link->state != PACKBUF_I_LINK_OPEN) {
    if (now - link->born > PACKBUF_I_GREETING_NS) packbuf_i_link_bye(link, PACKBUF_TIMEOUT, "no greeting");
  } else if (busy && now - link->moved > service->lease_ns && PACKBUF_I_LOAD(&service->wanting) &&
             packbuf_i_link_holds(link)) {
    packbuf_i_service_log(service, PACKBUF_LOG_WARNING,
                          "a client that made no progress was cut off: its room is wanted");
    PACKBUF_I_SERVED(service, recovered, 1);
    link->dead = 1;
  } else if (link->requests && now - link->came > PACKBUF_I_DEAD_NS && now - link->moved > PACKBUF_I_DEAD_NS) {
    link->dead = 1;
  } else if (link->requests && now - link->came > PACKBUF_I_SILENCE_NS && !link->sending) {
    packbuf_i_link_say(link, PACKBUF_I_PING, 0);
  }
}

/* ---- loops ---- */

/* Looks after all connections of a loop; whether one waits. */
static int packbuf_i_loop_sweep(packbuf_i_loop *loop, int all) {
  packbuf_server *server = loop->server;
  const uint64_t now = packbuf_now();
  const uint32_t stopping = PACKBUF_I_LOAD(&server->stopping);
  packbuf_i_link *link = loop->links.after, *next;
  int waiting = 0;
  for (; link != &loop->links; link = next) {
    unsigned happened = 0;
    next = link->after;
    if (!link->waiting && !all) continue;
    if (link->held && now >= link->held) {
      link->held = 0;
      happened = EPOLLIN;
    }
    if (link->requests) packbuf_i_link_tick(link, now);
    if (all) packbuf_i_link_look_at(link, now);
    if (stopping && link->http) link->dead = 1;
    else if (stopping && !link->requests && !link->sending) packbuf_i_link_bye(link, PACKBUF_OK, "the server ends");
    waiting |= link->waiting != 0;
    packbuf_i_link_run(loop, link, happened);
  }
  return waiting;
}

static void *packbuf_i_loop_run(void *context) {
  packbuf_i_loop *loop = (packbuf_i_loop *)context;
  packbuf_server *server = loop->server;
  struct epoll_event events[64];
  uint64_t swept = packbuf_now(), ticked = swept;
  int waiting = 0;
  for (;;) {
    const uint32_t stopping = PACKBUF_I_LOAD(&server->stopping);
    const int wait_ms = waiting || stopping || PACKBUF_I_LOAD(&server->service.wanting) ? 10 : 250;
    const int count = epoll_wait(loop->epoll, events, 64, wait_ms);
    uint64_t now;
    if (stopping == 2 || (stopping && loop->links.after == &loop->links)) break;
    for (int i = 0; i < count; i++) {
      void *who = events[i].data.ptr;
      if (who == &loop->wake) packbuf_i_loop_take(loop);
      else if (who == &server->listener || who == &server->metrics) {
        if (!stopping) packbuf_i_server_accept(server, *(const int *)who);
      } else packbuf_i_link_run(loop, (packbuf_i_link *)who, events[i].events);
    }
    now = packbuf_now();
    if (now - swept >= PACKBUF_I_SWEEP_NS || stopping) {
      waiting = packbuf_i_loop_sweep(loop, 1);
      swept = ticked = now;
    } else if (now - ticked >= PACKBUF_I_TICK_NS && PACKBUF_I_LOAD(&server->service.wanting)) {
      waiting = packbuf_i_loop_sweep(loop, 0);
      ticked = now;
    }
  }
  return NULL;
}

static int packbuf_i_loop_start(packbuf_server *server, packbuf_i_loop *loop) {
  struct epoll_event event;
  memset(&event, 0, sizeof event);
  loop->server = server;
  loop->links.before = loop->links.after = &loop->links;
  loop->epoll = epoll_create1(EPOLL_CLOEXEC);
  loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  event.events = EPOLLIN;
  event.data.ptr = &loop->wake;
  if (loop->epoll < 0 || loop->wake < 0 || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) != 0) return 0;
  if (loop == server->loops) {
    event.data.ptr = &server->listener;
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, server->listener, &event) != 0) return 0;
    event.data.ptr = &server->metrics;
    if (server->metrics >= 0 && epoll_ctl(loop->epoll, EPOLL_CTL_ADD, server->metrics, &event) != 0) return 0;
  }
  loop->running = pthread_create(&loop->thread, NULL, packbuf_i_loop_run, loop) == 0;
  return loop->running;
}

/* Ends loops and all connections, and frees it. */
static void packbuf_i_server_end(packbuf_server *server) {
  const packbuf_allocator allocator = server->service.allocator;
  PACKBUF_I_STORE(&server->stopping, 2);
  for (unsigned i = 0; server->loops && i < server->loop_count; i++) {
    packbuf_i_loop *loop = &server->loops[i];
    if (loop->running) {
      packbuf_i_loop_wake(loop);
      (void)pthread_join(loop->thread, NULL);
    }
  }
  for (unsigned i = 0; server->loops && i < server->loop_count; i++) { /* no thread runs that could hand one over */
    packbuf_i_loop *loop = &server->loops[i];
    if (loop->running) packbuf_i_loop_take(loop);
    while (loop->running && loop->links.after != &loop->links) packbuf_i_link_close(loop, loop->links.after);
    if (loop->epoll >= 0) (void)close(loop->epoll);
    if (loop->wake >= 0) (void)close(loop->wake);
    packbuf_i_lock_end(&loop->lock);
  }
  if (server->listener >= 0) (void)close(server->listener);
  if (server->metrics >= 0) (void)close(server->metrics);
  (void)packbuf_i_heap(&allocator, server->loops, server->loop_count * sizeof *server->loops, 0);
  packbuf_i_lock_end(&server->service.lock);
  (void)packbuf_i_heap(&allocator, server, sizeof *server, 0);
}

/* ---- listening ---- */

/* Listens; *address then has the port. */
static packbuf_status packbuf_i_address_listen(packbuf_i_address *address, int *listener, packbuf_error *error) {
  const int yes = 1, fd = socket(address->as.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return packbuf_i_system_fail(error, "no socket", errno);
  *listener = fd;
  (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(fd, &address->as.any, address->size) != 0 || listen(fd, 512) != 0)
    return packbuf_i_system_fail(error, "the address cannot be listened at", errno);
  address->size = sizeof address->as;
  if (getsockname(fd, &address->as.any, &address->size) != 0) return packbuf_i_system_fail(error, "no address", errno);
  return PACKBUF_OK;
}

/* Writes "tcp://HOST:PORT": the host that was asked for and the port that it is. */
static void packbuf_i_address_uri(const packbuf_i_address *address, const char *asked, size_t size, char *uri) {
  unsigned port = ntohs(address->as.any.sa_family == AF_INET ? address->as.four.sin_port : address->as.six.sin6_port);
  char digits[8];
  size_t at = 6, count = 0;
  while (size && asked[size - 1] != ':') size--;
  memcpy(uri, "tcp://", 6);
  if (size <= 1) memcpy(uri + at, "127.0.0.1:", 10), at += 10;
  else memcpy(uri + at, asked, size), at += size;
  do digits[count++] = (char)('0' + port % 10), port /= 10;
  while (port);
  while (count) uri[at++] = digits[--count];
  uri[at] = 0;
}

/* ---- what users call ---- */

/* Listens where a URI says. */
static packbuf_status packbuf_i_server_listen(packbuf_server *server, const char *uri, const char *metrics,
                                              packbuf_error *error) {
  packbuf_i_address found[PACKBUF_I_ADDRESSES];
  packbuf_i_uri parts;
  unsigned count;
  packbuf_status status = packbuf_i_uri_start(&parts, uri, error);
  if (status) return status;
  if (parts.base + 16 > PACKBUF_MAX_URI)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "the URI is too long");
  if (!packbuf_i_uri_has_scheme(&parts, "tcp"))
    return packbuf_i_call_fail(
        error, packbuf_i_uri_has_scheme(&parts, "verbs") ? PACKBUF_UNAVAILABLE : PACKBUF_INVALID_ARGUMENT,
        packbuf_i_uri_has_scheme(&parts, "verbs") ? "this build does not serve verbs"
                                                  : "a server's URI is tcp://HOST:PORT");
  if (parts.base != parts.size)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a server's URI has no options");
  status = packbuf_i_addresses_find(parts.rest, parts.rest_size, found, &count, error);
  if (status) return status;
  if (!server->service.secret_size && !packbuf_i_address_loopback(&found[0]))
    return packbuf_i_call_fail(error, PACKBUF_DENIED, "a server that others can reach needs a secret");
  status = packbuf_i_address_listen(&found[0], &server->listener, error);
  if (status) return status;
  packbuf_i_address_uri(&found[0], parts.rest, parts.rest_size, server->uri);
  if (!metrics) return PACKBUF_OK;
  status = packbuf_i_addresses_find(metrics, strlen(metrics), found, &count, error);
  return status ? status : packbuf_i_address_listen(&found[0], &server->metrics, error);
}

static packbuf_status packbuf_i_server_start(packbuf_server *server, packbuf_store *store, const char *uri,
                                             const packbuf_server_options *options, packbuf_error *error) {
  packbuf_i_service *service = &server->service;
  packbuf_store_info info;
  packbuf_status status = packbuf_store_describe(store, &info, PACKBUF_NO_WAIT, error);
  if (status) return status;
  if (!(info.capabilities & PACKBUF_CAN_IN_PLACE))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "only a store of this machine can be served");
  service->store = store;
  service->capabilities = info.capabilities;
  service->lease_ns = (options->lease_ms ? options->lease_ms : 30000u) * (uint64_t)1000000u;
  service->quota = options->quota;
  service->log = options->log;
  service->log_context = options->log_context;
  server->most = options->connections ? options->connections : 4096;
  server->loop_count = options->threads ? options->threads : 2;
  if (server->loop_count > 64) server->loop_count = 64;
  status = packbuf_i_secret_find(options->secret, options->secret_size, service->secret, &service->secret_size, error);
  if (status) return status;
  if (!packbuf_i_random(service->id, sizeof service->id)) return packbuf_i_system_fail(error, "no random bytes", errno);
  status = packbuf_i_server_listen(server, uri, options->metrics, error);
  if (status) return status;
  server->loops =
      (packbuf_i_loop *)packbuf_i_heap(&service->allocator, NULL, 0, server->loop_count * sizeof *server->loops);
  if (!server->loops) return packbuf_i_no_memory(error);
  for (unsigned i = 0; i < server->loop_count; i++) {
    server->loops[i].epoll = server->loops[i].wake = -1;
    (void)packbuf_i_lock_start(&server->loops[i].lock);
  }
  for (unsigned i = server->loop_count; i-- > 0;)
    if (!packbuf_i_loop_start(server, &server->loops[i])) /* the first, which accepts, is the last to start */
      return packbuf_i_system_fail(error, "an event loop cannot be started", errno);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_server_open(packbuf_store *store, const char *uri,
                                               const packbuf_server_options *options, packbuf_server **server,
                                               packbuf_error *error) {
  packbuf_server_options none;
  packbuf_allocator allocator;
  packbuf_server *made;
  packbuf_status status;
  memset(&none, 0, sizeof none);
  memset(&allocator, 0, sizeof allocator);
  if (!server || !store) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a store to serve must be given");
  *server = NULL;
  if (!options) options = &none;
  if (options->allocator) allocator = *options->allocator;
  made = (packbuf_server *)packbuf_i_heap(&allocator, NULL, 0, sizeof *made);
  if (!made) return packbuf_i_no_memory(error);
  made->service.allocator = allocator;
  made->listener = made->metrics = -1;
  (void)packbuf_i_lock_start(&made->service.lock);
  status = packbuf_i_server_start(made, store, uri, options, error);
  if (status) packbuf_i_server_end(made);
  else *server = made;
  return status;
}

PACKBUF_API const char *packbuf_server_uri(const packbuf_server *server) { return server->uri; }

PACKBUF_API packbuf_status packbuf_server_counters(packbuf_server *server, packbuf_counters *counters,
                                                   packbuf_error *error) {
  packbuf_store_info info;
  packbuf_status status = packbuf_store_describe(server->service.store, &info, PACKBUF_NO_WAIT, error);
  if (status) return status;
#define PACKBUF_I_X(name, gauge, text) counters->name = PACKBUF_I_LOAD(&server->service.counters.name);
  PACKBUF_COUNTER_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
  counters->store_used = info.used;
  counters->store_objects = info.objects;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_server_close(packbuf_server *server, uint64_t deadline, packbuf_error *error) {
  (void)error;
  if (!server) return PACKBUF_OK;
  PACKBUF_I_STORE(&server->stopping, 1);
  for (unsigned i = 0; i < server->loop_count; i++) packbuf_i_loop_wake(&server->loops[i]);
  while (PACKBUF_I_LOAD(&server->connections) && packbuf_now() < deadline) {
    const uint64_t some = packbuf_now() + 1000000u;
    packbuf_i_sleep_until(some < deadline ? some : deadline);
  }
  packbuf_i_server_end(server);
  return PACKBUF_OK;
}

#else /* no epoll */

PACKBUF_API packbuf_status packbuf_server_open(packbuf_store *store, const char *uri,
                                               const packbuf_server_options *options, packbuf_server **server,
                                               packbuf_error *error) {
  (void)store, (void)uri, (void)options;
  *server = NULL;
  return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, "servers need Linux (epoll)");
}

PACKBUF_API const char *packbuf_server_uri(const packbuf_server *server) {
  (void)server;
  return "";
}

PACKBUF_API packbuf_status packbuf_server_counters(packbuf_server *server, packbuf_counters *counters,
                                                   packbuf_error *error) {
  (void)server;
  memset(counters, 0, sizeof *counters);
  return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, "servers need Linux (epoll)");
}

PACKBUF_API packbuf_status packbuf_server_close(packbuf_server *server, uint64_t deadline, packbuf_error *error) {
  (void)server, (void)deadline, (void)error;
  return PACKBUF_OK;
}

#endif
