/* transport/server_link.c: one connection of a server without its socket: what the server says to what a client says,
 * fed with bytes and asked for bytes (a link). Requests under way, answers on their way out, the bytes that a client's
 * objects take.
 * May use: system, text, frames, secret, buddy (pages), the public calls of stores. Must not know: sockets, loops,
 * drivers, what a store does behind its calls. */

/* ---- what all connections share ---- */

enum {
  PACKBUF_I_GROUP = 64,          /* items of one call of the store */
  PACKBUF_I_REQUESTS = 16,       /* under way in one connection */
  PACKBUF_I_QUEUED = 8388608,    /* bytes on their way out, beyond which a connection is not read from */
  PACKBUF_I_CROWD = 268435456,   /* bytes of the heap for what is on its way out, of all connections, beyond which */
  PACKBUF_I_CROWD_SHARE = 65536, /* one has no more than this of it, and */
  PACKBUF_I_CROWD_LISTED = 64,   /* a list no more entries */
  PACKBUF_I_PACE = 32,           /* bytes a millisecond that are progress: fewer are a way to hold room for ever */
  PACKBUF_I_CHUNK_OUT = 4194304  /* of one DATA frame */
};

typedef struct packbuf_i_service {
  packbuf_store *store;
  packbuf_allocator allocator;
  uint8_t secret[PACKBUF_I_SECRET], id[16];
  size_t secret_size;
  unsigned capabilities;
  uint64_t lease_ns, quota;
  packbuf_i_nic *nic;           /* NULL: tcp alone */
  packbuf_driver_memory memory; /* of the store; with a nic */
  packbuf_i_plot slab;          /* the same, registered */
  uint64_t wanting;             /* connections that wait for room (atomic) */
  uint64_t blocks;              /* of the heap, for what is on its way out in all connections (atomic) */
  uint64_t pace;                /* bytes that one moves in lease_ns, at least, of what it holds */
  packbuf_counters counters;    /* atomic */
  packbuf_i_lock lock;          /* of sessions and of the log */
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

enum {
  PACKBUF_I_WORK_WAITS,
  PACKBUF_I_WORK_FILLS, /* its bytes come */
  PACKBUF_I_WORK_PULLS, /* its bytes are being read */
  PACKBUF_I_WORK_READY,
  PACKBUF_I_WORK_LEASED,
  PACKBUF_I_WORK_DONE
};

/* One item of a put or of a remove. */
typedef struct packbuf_i_job {
  const char *key;
  packbuf_slice slice;
  uint64_t size, came, head_length, generation, charged;
  uint64_t address, posted; /* that is read by this side: where it lies; bytes of which READs were posted */
  uint32_t flags, ttl_ms, head_checksum, rkey;
  uint8_t kind, state, eager, remote, dropped, fingerprint[PACKBUF_FINGERPRINT];
  packbuf_status status; /* that it ends with, or what it waits for */
  packbuf_stat stat;
} packbuf_i_job;

typedef struct packbuf_i_request {
  struct packbuf_i_request *next;
  size_t block; /* bytes of this */
  uint64_t id, deadline;
  uint64_t moved, paced;      /* when it last was granted room, or enough bytes for it had come; bytes since then */
  uint32_t type, count, left; /* left: items that are not answered */
  uint32_t pulls, pulled;     /* whether there are items that this side reads; those before `pulled` need no READ now */
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
  struct packbuf_i_plane *plane;  /* its queue pairs; NULL: there never were any */
  packbuf_i_ibv_channel *channel; /* who is told of their completions */
  int paired;                     /* that there may be some was agreed on */
  uint64_t queued, blocks;        /* bytes on their way out; of the heap, for that */
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
  size_t piece;                     /* bytes that are read at a time */
  uint64_t born, came, moved, gone; /* times: of the last byte that came, of the last that moved, that went */
  uint64_t taken, paced;            /* when enough bytes had gone; bytes since then */
  uint64_t held;                    /* not read until */
  uint64_t pinged;                  /* when it was asked whether it is there */
  uint32_t failures_at;             /* where failures of its address are counted */
} packbuf_i_link;

/* transport/server_verbs.c */
static void packbuf_i_plane_end(packbuf_i_link *link);
static void packbuf_i_plane_room(packbuf_i_link *link, unsigned items);
static int packbuf_i_plane_locate(packbuf_i_link *link, uint64_t index, packbuf_item *item, uint64_t total,
                                  packbuf_i_located *located);
static void packbuf_i_link_pull(packbuf_i_link *link);
static int packbuf_i_link_pull_drop(packbuf_i_job *work, packbuf_status status);
static const char *packbuf_i_link_pair(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body);
static const char *packbuf_i_link_release(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body);

/* ---- out ---- */

static packbuf_i_outgoing *packbuf_i_sending_new(packbuf_i_link *link, size_t more) {
  const size_t block = sizeof(packbuf_i_outgoing) + more;
  packbuf_i_outgoing *sending = (packbuf_i_outgoing *)packbuf_i_heap(&link->service->allocator, NULL, 0, block);
  if (sending) {
    sending->block = block;
    link->blocks += block;
    (void)PACKBUF_I_ADD(&link->service->blocks, block);
    if (!link->sending) link->gone = link->taken = packbuf_now(), link->paced = 0; /* from now on the client's turn */
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
  link->blocks -= sending->block;
  (void)PACKBUF_I_SUBTRACT(&link->service->blocks, sending->block);
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
  link->paced += size;
  if (link->paced >= link->service->pace) link->taken = packbuf_now(), link->paced = 0;
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

/* Whether many clients do not read their answers. */
static int packbuf_i_service_crowded(const packbuf_i_service *service) {
  return PACKBUF_I_LOAD(&service->blocks) >= PACKBUF_I_CROWD;
}

/* Whether so much is on its way out that it is not read from: bytes, or what is kept of many small things. */
static int packbuf_i_link_full(const packbuf_i_link *link) {
  const uint64_t most = packbuf_i_service_crowded(link->service) ? PACKBUF_I_CROWD_SHARE : PACKBUF_I_QUEUED;
  return link->queued >= PACKBUF_I_QUEUED || link->blocks >= most;
}

/* Whether it has held for so long, and moved next to nothing of it, what others may want: leases on what is on its way
 * out, room for what comes. Frames that are not about that do not count. */
static int packbuf_i_link_holds(const packbuf_i_link *link, uint64_t now, uint64_t time) {
  if (link->sending && link->taken + time < now) return 1;
  for (const packbuf_i_request *r = link->requests; r; r = r->next)
    for (unsigned i = 0; r->moved + time < now && i < r->count; i++)
      if (r->works[i].state == PACKBUF_I_WORK_FILLS || r->works[i].state == PACKBUF_I_WORK_PULLS) return 1;
  return 0;
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
  uint64_t counted;            /* not before that time again */
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
  const uint64_t begun = packbuf_now();
  size_t kept = 0;
  if (begun < account->counted) return;
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
  account->counted = packbuf_now() + 8 * (packbuf_now() - begun); /* others wait for the lock */
}

/* Charges bytes. 0: the quota does not allow it. */
static int packbuf_i_account_charge(packbuf_i_link *link, packbuf_i_job *work) {
  packbuf_i_account *account = link->account;
  const uint64_t bytes = packbuf_i_buddy_pages(work->size) * PACKBUF_I_PAGE; /* as stores give room */
  int good;
  if (!account) return 1;
  packbuf_i_locked(&link->service->lock);
  good = bytes <= account->quota;
  if (good && account->used > account->quota - bytes) {
    packbuf_i_account_count(link->service, account);
    good = account->used <= account->quota - bytes;
  }
  if (good) account->used += bytes, work->charged = bytes;
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
    work->remote = asked.remote;
    work->address = asked.address;
    work->rkey = asked.rkey;
    request->pulls |= asked.remote;
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
  else work->state = work->remote ? PACKBUF_I_WORK_PULLS : PACKBUF_I_WORK_FILLS;
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
      if (!refused) request->moved = packbuf_now();
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
  request->pulled = 0;
  if (request->pulls) packbuf_i_link_pull(link);
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
  packbuf_i_located located;
  packbuf_i_asked asked;
  uint8_t places[PACKBUF_I_FRAME_HEADER + PACKBUF_I_GROUP * PACKBUF_I_LOCATED_SIZE];
  packbuf_i_wire_to where = packbuf_i_frame_body(places, sizeof places);
  uint64_t totals[PACKBUF_I_GROUP], located_count = 0;
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
    PACKBUF_I_SERVED(link->service, bytes_got, totals[i]);
    if (!item->status && packbuf_i_plane_locate(link, from + i, item, totals[i], &located)) {
      packbuf_i_located_write(&where, &located);
      located_count++;
      totals[i] = 0;
    } else packbuf_i_results_add(&results, from + i, item->status, &item->stat, totals[i]);
  }
  packbuf_i_results_end(&results);
  if (located_count)
    packbuf_i_link_send(link, places,
                        packbuf_i_frame_end(places, &where, PACKBUF_I_LOCATED, located_count, frame->request, 0));
  if (frame->type != PACKBUF_I_GET) return;
  *reader = again;
  for (unsigned i = 0; i < count; i++) {
    packbuf_item *item = &group->items[i];
    (void)packbuf_i_asked_read(reader, frame->type, &asked);
    if (totals[i])
      packbuf_i_link_send_object(link, frame->request, (uint16_t)(from + i), &item->lease,
                                 asked.ranged ? asked.ranges : NULL, asked.ranged ? asked.range_count : 1, totals[i]);
    packbuf_lease_release(&item->lease);
  }
}

static void packbuf_i_link_look(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  (void)packbuf_i_wire_take64(&reader);
  packbuf_i_plane_room(link, frame->items);
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
  const int full = packbuf_i_link_full(link); /* lists that nobody reads: small frames, large answers */
  const char *why = packbuf_i_list_read(frame, from, &ask);
  if (why) return why;
  if (ask.most > PACKBUF_I_LISTED_MOST) ask.most = PACKBUF_I_LISTED_MOST;
  if (packbuf_i_service_crowded(service) && ask.most > PACKBUF_I_CROWD_LISTED) ask.most = PACKBUF_I_CROWD_LISTED;
  if (full) ask.most = 0;
  memset(&listing, 0, sizeof listing);
  listed_size = (ask.most + 1u) * sizeof *listed;
  size = PACKBUF_I_FRAME_HEADER + PACKBUF_I_LISTED_SIZE + ask.most * (PACKBUF_I_LISTED_ENTRY + PACKBUF_MAX_KEY);
  listed = (packbuf_listed *)packbuf_i_heap(heap, NULL, 0, listed_size);
  bytes = (uint8_t *)packbuf_i_heap(heap, NULL, 0, size);
  if (listed && bytes) {
    packbuf_status status = PACKBUF_OK;
    listing.cursor = ask.cursor;
    if (ask.options & PACKBUF_I_LIST_COLLECT && !full)
      (void)packbuf_store_collect(service->store, PACKBUF_NO_WAIT, &listing.left, NULL);
    if (full) status = PACKBUF_LIMIT;
    else if (ask.most)
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

/* Lets a client in whose HELLO was kept; with a secret, one that knows it: who does not may not share an account. */
static const char *packbuf_i_link_admit(packbuf_i_link *link) {
  packbuf_i_frame frame;
  packbuf_i_hello hello;
  const char *why;
  int failed;
  memset(&frame, 0, sizeof frame);
  frame.body = (uint32_t)link->hello_size;
  why = packbuf_i_hello_read(&frame, link->hello, &hello);
  if (why) return why;
  link->account = packbuf_i_account_open(link->service, &hello, &failed);
  if (failed) return packbuf_i_frame_memory;
  link->state = PACKBUF_I_LINK_OPEN;
  link->intake.most_body = PACKBUF_I_FRAME_BODY;
  return NULL;
}

static const char *packbuf_i_link_hello(packbuf_i_link *link, const packbuf_i_frame *frame, const uint8_t *from) {
  packbuf_i_service *service = link->service;
  uint8_t bytes[PACKBUF_I_FRAME_HEADER + sizeof link->welcome];
  packbuf_i_hello hello;
  packbuf_i_welcome welcome;
  packbuf_i_wire_to body;
  size_t size;
  const char *why = packbuf_i_hello_read(frame, from, &hello);
  if (why) return why;
  if (hello.least > PACKBUF_I_FRAME_VERSION) {
    packbuf_i_link_bye(link, PACKBUF_UNSUPPORTED_VERSION, "this server speaks version 1");
    return NULL;
  }
  memset(&welcome, 0, sizeof welcome);
  welcome.version = PACKBUF_I_FRAME_VERSION;
  welcome.proof = service->secret_size != 0;
  welcome.features = service->nic ? hello.features & PACKBUF_I_FEATURE_VERBS : 0;
  link->paired = welcome.features != 0;
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
  if (!welcome.proof) return packbuf_i_link_admit(link);
  link->state = PACKBUF_I_LINK_PROOF;
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
  return packbuf_i_link_admit(link);
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
  if (request->pulls && !link->plane) return "an item to be read, and no queue pairs";
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
    if (work->state == PACKBUF_I_WORK_PULLS && !packbuf_i_link_pull_drop(work, PACKBUF_CANCELLED)) continue;
    /* OK is of what has its room, and perhaps its bytes, but has not been put */
    packbuf_i_work_answer(&results, request, work,
                          work->state != PACKBUF_I_WORK_PULLS && work->status ? work->status : PACKBUF_CANCELLED);
  }
  packbuf_i_results_end(&results);
  if (!request->left) packbuf_i_request_free(link, request);
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
    case PACKBUF_I_PAIRING: return packbuf_i_link_pair(link, frame, body);
    case PACKBUF_I_RELEASE: return packbuf_i_link_release(link, frame, body);
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
    request->paced += size;
    if (request->paced >= link->service->pace) request->moved = packbuf_now(), request->paced = 0;
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
  packbuf_i_plane_end(link); /* before memory goes back: nothing is read into it any more, or from it */
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
  if (link->state == PACKBUF_I_LINK_ENDING) {
    packbuf_i_plane_end(link);
    while (link->requests) packbuf_i_request_free(link, link->requests);
  }
  if (link->ready) packbuf_i_link_publish(link);
  for (const packbuf_i_request *r = link->requests; r && !waits; r = r->next)
    for (unsigned i = 0; i < r->count && !waits; i++)
      waits = r->works[i].state != PACKBUF_I_WORK_DONE && r->works[i].state != PACKBUF_I_WORK_FILLS &&
              r->works[i].state != PACKBUF_I_WORK_PULLS;
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
      if (request->works[i].state == PACKBUF_I_WORK_FILLS ||
          (request->works[i].state == PACKBUF_I_WORK_PULLS &&
           packbuf_i_link_pull_drop(&request->works[i], PACKBUF_TIMEOUT)))
        packbuf_i_work_answer(&results, request, &request->works[i], PACKBUF_TIMEOUT);
    packbuf_i_results_end(&results);
  }
  packbuf_i_link_publish(link);
  packbuf_i_link_came(link, NULL);
}
