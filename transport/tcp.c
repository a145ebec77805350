/* transport/tcp.c: the stores `tcp` and `verbs`: what a client says to a server. A batch takes one connection whole;
 * one loop writes what is to be sent straight from the caller's memory and reads answers straight to where they go.
 * With verbs the server reads what is put, and this side reads what is got (transport/verbs_client.c); all else is the
 * same.
 * May use: system, text, frames, sockets, verbs, pool, driver.h. Must not know: the handle, who serves. */
#include <poll.h>
#include <stdlib.h>
#include <sys/uio.h>

/* ---- a connection, and the one request that is under way in it ---- */

enum {
  PACKBUF_I_TRIP = 256,     /* items of one request */
  PACKBUF_I_SEGMENTS = 640, /* pieces on their way out */
  PACKBUF_I_HEADS = 64,     /* DATA frames among them */
  PACKBUF_I_RANGES = 32768, /* of one item */
  PACKBUF_I_PART = 4194304, /* of one DATA frame */
  PACKBUF_I_BUFFER = 65536, /* what is read at a time */
  PACKBUF_I_DIRECT = 16384, /* payload that is read to its place when so much of it is to come */
  PACKBUF_I_LITTLE = 65536, /* what may follow a put at once where there was no room of late */
  PACKBUF_I_CAREFUL = 8     /* that many puts long */
};
#define PACKBUF_I_LAST_CALL_NS 50000000u   /* for the answer to CANCEL */
#define PACKBUF_I_AT_ONCE_NS 40000000u     /* for an answer to what must not wait */
#define PACKBUF_I_QUIET_NS 10000000000u    /* without a byte: PING */
#define PACKBUF_I_GIVEN_UP_NS 30000000000u /* dead */

/* ANSWERED: of a put whose bytes have not all gone; what is on its way out is the caller's memory. */
enum {
  PACKBUF_I_STEP_ASKED,
  PACKBUF_I_STEP_GRANTED,
  PACKBUF_I_STEP_DATA,
  PACKBUF_I_STEP_LOCATED, /* it is known where it lies */
  PACKBUF_I_STEP_AGAIN,   /* it is asked for once more, with new queue pairs */
  PACKBUF_I_STEP_ANSWERED,
  PACKBUF_I_STEP_DONE
};

/* One item under way. */
typedef struct packbuf_i_errand {
  packbuf_item *item;
  uint64_t index;               /* in the call */
  uint64_t gone, follows, came; /* gone: sent, or about to be */
  uint8_t *to;                  /* NULL: what comes is dropped */
  packbuf_slice slice;
  packbuf_status status; /* when all has come */
  uint8_t state, way, tries;
  unsigned piece;      /* of the request: where its bytes end */
  uint32_t word, rkey; /* LOCATED */
  uint64_t address;
} packbuf_i_errand;

typedef struct packbuf_i_peer {
  struct packbuf_i_tcp *tcp;
  int fd, busy, met; /* met: it was connected before */
  packbuf_i_intake intake;
  packbuf_i_patience patience;
  uint8_t *buffer;
  /* greeting */
  uint8_t hello[512], welcome[PACKBUF_I_FRAME_GREETING];
  size_t hello_size, welcome_size;
  packbuf_i_welcome limits;
  unsigned greeted; /* 1: WELCOME came; 2: all is said */
  /* the request */
  packbuf_call *call;
  uint64_t id;
  unsigned type, count, left, answered; /* left: not ended; answered: of these, but for their bytes */
  unsigned asking, careful; /* asking: it is on its way out; careful: puts before which much may follow one again */
  packbuf_i_errand steps[PACKBUF_I_TRIP];
  uint8_t *frame;
  size_t frame_size, frame_room;
  packbuf_listed *listed; /* where LISTED goes */
  uint64_t listed_room, listed_count;
  packbuf_i_listing listing;
  unsigned at; /* whose DATA comes */
  /* out */
  struct iovec pieces[PACKBUF_I_SEGMENTS];
  unsigned piece, piece_count;
  unsigned granted[PACKBUF_I_TRIP], granted_from, granted_to;
  uint8_t heads[PACKBUF_I_HEADS][PACKBUF_I_FRAME_HEADER + PACKBUF_I_DATA_SIZE];
  uint8_t word[PACKBUF_I_FRAME_HEADER];
  unsigned cancel, pong, ping; /* to be said; cancel 2: it was */
  uint64_t pong_to;
  /* verbs: queue pairs, those of the other side, and what has been read so far: step, range, byte of it */
  packbuf_i_pairs pairs;
  packbuf_i_pairing theirs;
  uint64_t *words;
  unsigned fetch_step, fetched, rounds; /* fetched: the chains are all posted; rounds: times that it was asked again */
  uint64_t fetch_range, fetch_at;
  /* how it ended; NULL, OK: it has not */
  const char *why;
  packbuf_status broken;
} packbuf_i_peer;

typedef struct packbuf_i_tcp {
  packbuf_allocator allocator;
  packbuf_pool *pool;
  int own_pool;
  packbuf_i_address addresses[PACKBUF_I_ADDRESSES];
  unsigned address_count, peer_count, capabilities;
  uint8_t secret[PACKBUF_I_SECRET], session[16];
  size_t secret_size;
  uint64_t quota, connect_ns;
  char name[256], uri[PACKBUF_MAX_URI + 1];
  packbuf_i_lock lock; /* of who is busy */
  packbuf_i_signal freed;
  packbuf_i_peer *peers;
  uint64_t next_id, moved, reconnects; /* (atomic) */
  packbuf_i_nic *nic;                  /* NULL: tcp */
  packbuf_i_plot slab, word_plot;      /* the pool's memory; the lease words of all peers */
  uint64_t *words;
  const char *stepped_down;
  char device[80];
} packbuf_i_tcp;

/* transport/verbs_client.c */
static packbuf_status packbuf_i_peer_pair(packbuf_i_peer *peer, uint64_t deadline);
static const char *packbuf_i_peer_located(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body);
static packbuf_i_plot *packbuf_i_tcp_plot(packbuf_i_tcp *tcp, const packbuf_call *call, uint64_t index,
                                          const void *memory, uint64_t size);
static void packbuf_i_peer_fetch(packbuf_i_peer *peer);
static int packbuf_i_peer_reap(packbuf_i_peer *peer);
static int packbuf_i_peer_regather(packbuf_i_peer *peer, size_t *room);
static packbuf_status packbuf_i_verbs_option(void *context, const packbuf_i_uri_option *option);
static packbuf_status packbuf_i_tcp_start_verbs(packbuf_i_tcp *tcp, packbuf_error *error);
static void packbuf_i_tcp_end_verbs(packbuf_i_tcp *tcp);

static void packbuf_i_peer_break(packbuf_i_peer *peer, packbuf_status status, const char *why) {
  if (peer->broken) return;
  peer->broken = status;
  peer->why = why;
}

static void packbuf_i_peer_close(packbuf_i_peer *peer) {
  packbuf_i_pairs_close(&peer->pairs);
  if (peer->fd >= 0) {
    (void)shutdown(peer->fd, SHUT_RDWR); /* a child after fork may have it too: the server is to see the end */
    (void)close(peer->fd);
  }
  peer->fd = -1;
  peer->greeted = 0;
  packbuf_i_intake_end(&peer->intake);
}

/* An item ended. */
static void packbuf_i_step_end(packbuf_i_peer *peer, packbuf_i_errand *step, packbuf_status status) {
  packbuf_item *item = step->item;
  step->state = PACKBUF_I_STEP_DONE;
  peer->left--;
  if (!status && step->slice.data) {
    packbuf_slice *kept = (packbuf_slice *)packbuf_i_heap(&peer->tcp->allocator, NULL, 0, sizeof *kept);
    if (kept) {
      *kept = step->slice;
      item->lease.data = step->slice.data;
      item->lease.size = step->came;
      item->lease.token = (uint64_t)(uintptr_t)kept;
      memset(&step->slice, 0, sizeof step->slice);
    } else status = PACKBUF_OUT_OF_MEMORY;
  }
  packbuf_slice_release(&step->slice);
  item->got = status ? 0 : step->came;
  item->status = status;
  peer->call->done(peer->call, step->index);
}

/* ---- what a server says ---- */

static const char *packbuf_i_peer_grant(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  for (unsigned i = 0; i < frame->items; i++) {
    const unsigned index = packbuf_i_wire_take16(&reader);
    if (!reader.ok) return packbuf_i_frame_short;
    if (index >= peer->count || peer->steps[index].state != PACKBUF_I_STEP_ASKED || peer->granted_to == PACKBUF_I_TRIP)
      return "a grant for what was not asked for";
    if (peer->steps[index].way == PACKBUF_I_WAY_EAGER) peer->careful = PACKBUF_I_CAREFUL;
    peer->steps[index].state = PACKBUF_I_STEP_GRANTED;
    peer->steps[index].gone = 0;
    peer->granted[peer->granted_to++] = index;
  }
  return NULL;
}

/* Memory for the answers of these steps: of one account in one go, so that two batches cannot each hold half of what
 * they want; else, and where that fails, one by one. */
static void packbuf_i_peer_place_all(packbuf_i_peer *peer, const uint16_t *which, unsigned count) {
  packbuf_slice slices[PACKBUF_I_TRIP];
  uint64_t sizes[PACKBUF_I_TRIP];
  const uint64_t deadline = peer->call->deadline;
  packbuf_status status = PACKBUF_OK;
  int alike = 1;
  for (unsigned i = 0; i < count; i++) {
    const packbuf_i_errand *step = &peer->steps[which[i]];
    sizes[i] = step->follows ? step->follows : 1;
    if (step->item->account != peer->steps[which[0]].item->account) alike = 0;
  }
  if (!count) return;
  if (alike)
    status =
        packbuf_pool_take(peer->tcp->pool, peer->steps[which[0]].item->account, sizes, count, deadline, slices, NULL);
  for (unsigned i = 0; i < count; i++) {
    packbuf_i_errand *step = &peer->steps[which[i]];
    if (!alike || status)
      step->status = packbuf_pool_take(peer->tcp->pool, step->item->account, &sizes[i], 1,
                                       status ? (uint64_t)PACKBUF_NO_WAIT : deadline, &slices[i], NULL);
    if (step->status) continue;
    step->slice = slices[i];
    step->to = (uint8_t *)slices[i].data;
  }
}

static const char *packbuf_i_peer_result(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  packbuf_i_result result;
  uint16_t waiting[PACKBUF_I_TRIP];
  unsigned waiting_count = 0;
  waiting[0] = 0;
  for (unsigned i = 0; i < frame->items; i++) {
    const char *why = packbuf_i_result_read(&reader, &result);
    packbuf_i_errand *step;
    if (why) return why;
    if (result.index >= peer->count) return "a result that nobody asked for";
    step = &peer->steps[result.index];
    if (step->state >= PACKBUF_I_STEP_DATA) return "a result that nobody asked for";
    if (result.follows && peer->type != PACKBUF_I_GET) return "bytes that nobody asked for";
    step->item->stat = result.stat;
    step->status = (packbuf_status)result.status;
    if (step->status == PACKBUF_CANCELLED) step->status = PACKBUF_TIMEOUT;
    if (step->status == PACKBUF_FULL || step->status == PACKBUF_QUOTA) peer->careful = PACKBUF_I_CAREFUL;
    if (step->status == PACKBUF_DISCONNECTED && step->way == PACKBUF_I_WAY_REMOTE && step->tries++ == 0) {
      step->state = PACKBUF_I_STEP_AGAIN; /* the server's READs failed, so it is not put */
      peer->left--;
      continue;
    }
    if (peer->type == PACKBUF_I_PUT && peer->piece < peer->piece_count) {
      step->state = PACKBUF_I_STEP_ANSWERED;
      peer->answered++;
      continue;
    }
    if (step->status || peer->type != PACKBUF_I_GET) {
      packbuf_i_step_end(peer, step, step->status);
      continue;
    }
    if (step->item->into && result.follows > step->item->capacity) return "more bytes than there is room for";
    step->state = PACKBUF_I_STEP_DATA;
    step->follows = result.follows;
    step->to = (uint8_t *)step->item->into;
    if (!step->item->into) waiting[waiting_count++] = result.index;
    else if (!step->follows) packbuf_i_step_end(peer, step, PACKBUF_OK);
  }
  packbuf_i_peer_place_all(peer, waiting, waiting_count);
  for (unsigned i = 0; i < waiting_count; i++) {
    packbuf_i_errand *step = &peer->steps[waiting[i]];
    if (!step->follows) packbuf_i_step_end(peer, step, step->status);
  }
  return NULL;
}

static const char *packbuf_i_peer_data(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body) {
  uint64_t offset;
  uint16_t index;
  const char *why = packbuf_i_data_read(frame, body, &index, &offset);
  if (why) return why;
  if (index >= peer->count || peer->steps[index].state != PACKBUF_I_STEP_DATA || offset != peer->steps[index].came ||
      frame->payload > peer->steps[index].follows - offset)
    return "data that nobody asked for";
  peer->at = index;
  return NULL;
}

static const char *packbuf_i_peer_listed(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  const char *why = packbuf_i_listing_read(&reader, &peer->listing);
  if (!why && (peer->type != PACKBUF_I_LIST || !peer->left || frame->items > peer->listed_room))
    why = "a list that nobody asked for";
  for (unsigned i = 0; !why && i < frame->items; i++) {
    why = packbuf_i_listed_read(&reader, &peer->listed[i]);
    /* people see it: nothing that a terminal obeys */
    if (!why && !packbuf_i_key_valid(peer->listed[i].key)) why = "a key that is none";
  }
  if (why) return why;
  peer->listed_count = frame->items;
  peer->left = 0;
  return NULL;
}

static const char *packbuf_i_peer_bye(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_bye bye;
  const char *why = packbuf_i_bye_read(frame, body, &bye);
  if (why) return why;
  if (bye.status == PACKBUF_DENIED) packbuf_i_peer_break(peer, PACKBUF_DENIED, "wrong secret");
  else if (bye.status == PACKBUF_UNSUPPORTED_VERSION)
    packbuf_i_peer_break(peer, PACKBUF_UNSUPPORTED_VERSION, "the server speaks another version of the protocol");
  else if (bye.status == PACKBUF_PROTOCOL)
    packbuf_i_peer_break(peer, PACKBUF_PROTOCOL, "the server did not understand what was sent");
  else packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the server said goodbye");
  return NULL;
}

static const char *packbuf_i_peer_greeting(packbuf_i_peer *peer, const packbuf_i_frame *frame, const uint8_t *body) {
  const packbuf_i_tcp *tcp = peer->tcp;
  uint8_t proof[32];
  const char *why;
  if (frame->type == PACKBUF_I_WELCOME && !peer->greeted) {
    why = packbuf_i_welcome_read(frame, body, &peer->limits);
    if (why) return why;
    memcpy(peer->welcome, body, frame->body);
    peer->welcome_size = frame->body;
    if (peer->limits.proof && !tcp->secret_size)
      packbuf_i_peer_break(peer, PACKBUF_DENIED, "the server wants a secret");
    if (!peer->limits.proof && tcp->secret_size)
      packbuf_i_peer_break(peer, PACKBUF_DENIED, "the server has no secret, so it may be anyone");
    peer->greeted = peer->limits.proof ? 1 : 2;
    return NULL;
  }
  if (frame->type != PACKBUF_I_PROVEN || peer->greeted != 1) return "a frame out of its turn";
  if (frame->body < sizeof proof) return packbuf_i_frame_short;
  packbuf_i_proof_make(tcp->secret, tcp->secret_size, 'S', peer->hello, peer->hello_size, peer->welcome,
                       peer->welcome_size, proof);
  if (!packbuf_i_secret_equal(proof, body, sizeof proof))
    packbuf_i_peer_break(peer, PACKBUF_DENIED, "the server does not know the secret");
  peer->greeted = 2;
  return NULL;
}

static const char *packbuf_i_peer_frame(void *context, const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_peer *peer = (packbuf_i_peer *)context;
  if (frame->type == PACKBUF_I_BYE) return packbuf_i_peer_bye(peer, frame, body);
  if (peer->greeted != 2) return packbuf_i_peer_greeting(peer, frame, body);
  if (frame->type == PACKBUF_I_PING) {
    peer->pong = 1;
    peer->pong_to = frame->request;
    return NULL;
  }
  if (frame->type == PACKBUF_I_PONG) return NULL;
  if (frame->request != peer->id || !peer->type) return "an answer that nobody waits for";
  switch (frame->type) {
    case PACKBUF_I_GRANT:
      return peer->type == PACKBUF_I_PUT ? packbuf_i_peer_grant(peer, frame, body) : "a stray grant";
    case PACKBUF_I_RESULT: return packbuf_i_peer_result(peer, frame, body);
    case PACKBUF_I_DATA: return packbuf_i_peer_data(peer, frame, body);
    case PACKBUF_I_LISTED: return packbuf_i_peer_listed(peer, frame, body);
    case PACKBUF_I_LOCATED: return packbuf_i_peer_located(peer, frame, body);
    case PACKBUF_I_PAIRING:
      if (peer->type != PACKBUF_I_PAIRING || !peer->left) return "queue pairs that nobody asked for";
      peer->left = 0;
      return packbuf_i_pairing_read(frame, body, &peer->theirs);
    default: return "a frame that is not a server's";
  }
}

static uint8_t *packbuf_i_peer_place(void *context, uint64_t *size) {
  packbuf_i_peer *peer = (packbuf_i_peer *)context;
  const packbuf_i_errand *step = &peer->steps[peer->at];
  (void)size;
  return step->to ? step->to + step->came : NULL;
}

static const char *packbuf_i_peer_placed(void *context, uint64_t size) {
  packbuf_i_peer *peer = (packbuf_i_peer *)context;
  packbuf_i_errand *step = &peer->steps[peer->at];
  step->came += size;
  if (step->came == step->follows) packbuf_i_step_end(peer, step, step->status);
  return NULL;
}

static const packbuf_i_intake_taker packbuf_i_peer_taker = {packbuf_i_peer_frame, packbuf_i_peer_place,
                                                            packbuf_i_peer_placed};

/* ---- bytes out and in ---- */

static void packbuf_i_peer_piece(packbuf_i_peer *peer, const void *bytes, uint64_t size) {
  if (!size) return;
  peer->pieces[peer->piece_count].iov_base = (void *)(uintptr_t)bytes;
  peer->pieces[peer->piece_count++].iov_len = (size_t)size;
}

static void packbuf_i_peer_word(packbuf_i_peer *peer, unsigned type, uint64_t request) {
  packbuf_i_wire_to body = packbuf_i_frame_body(peer->word, sizeof peer->word);
  packbuf_i_peer_piece(peer, peer->word, packbuf_i_frame_end(peer->word, &body, type, 0, request, 0));
}

/* All that was to be sent has gone: what comes next. */
static void packbuf_i_peer_next(packbuf_i_peer *peer) {
  uint64_t total = 0;
  peer->piece = peer->piece_count = peer->asking = 0;
  if (peer->cancel == 1) {
    packbuf_i_peer_word(peer, PACKBUF_I_CANCEL, peer->id);
    peer->cancel = 2;
  } else if (peer->pong || peer->ping) {
    packbuf_i_peer_word(peer, peer->pong ? PACKBUF_I_PONG : PACKBUF_I_PING, peer->pong ? peer->pong_to : 0);
    if (peer->pong) peer->pong = 0;
    else peer->ping = 0;
  }
  if (peer->cancel) return;
  for (unsigned i = 0; i < PACKBUF_I_HEADS && peer->granted_from < peer->granted_to && total < PACKBUF_I_PART; i++) {
    packbuf_i_errand *step = &peer->steps[peer->granted[peer->granted_from]];
    uint64_t some = step->item->size - step->gone;
    packbuf_i_wire_to body = packbuf_i_frame_body(peer->heads[i], sizeof peer->heads[i]);
    if (step->state != PACKBUF_I_STEP_GRANTED) { /* it was answered before its bytes were sent */
      peer->granted_from++;
      continue;
    }
    if (some > PACKBUF_I_PART) some = PACKBUF_I_PART;
    packbuf_i_data_write(&body, (uint16_t)peer->granted[peer->granted_from], step->gone);
    packbuf_i_peer_piece(peer, peer->heads[i],
                         packbuf_i_frame_end(peer->heads[i], &body, PACKBUF_I_DATA, 1, peer->id, some));
    packbuf_i_peer_piece(peer, (const uint8_t *)step->item->from + step->gone, some);
    step->gone += some;
    total += some;
    if (step->gone == step->item->size) peer->granted_from++;
  }
}

static int packbuf_i_peer_wants_out(const packbuf_i_peer *peer) {
  if (peer->piece < peer->piece_count || peer->cancel == 1 || peer->pong || peer->ping) return 1;
  return !peer->cancel && peer->granted_from < peer->granted_to;
}

/* 1: bytes went. */
static int packbuf_i_peer_write(packbuf_i_peer *peer) {
  int went = 0;
  for (int i = 0; i < 16 && packbuf_i_peer_wants_out(peer); i++) {
    struct msghdr message;
    ssize_t done;
    if (peer->piece == peer->piece_count) packbuf_i_peer_next(peer);
    if (peer->piece == peer->piece_count) break;
    memset(&message, 0, sizeof message);
    message.msg_iov = peer->pieces + peer->piece;
    message.msg_iovlen = peer->piece_count - peer->piece < 256 ? peer->piece_count - peer->piece : 256;
#if defined(MSG_NOSIGNAL)
    done = sendmsg(peer->fd, &message, MSG_NOSIGNAL);
#else
    done = sendmsg(peer->fd, &message, 0);
#endif
    if (done < 0) {
      if (errno != EAGAIN && errno != EINTR)
        packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the connection to the server is broken");
      break;
    }
    went = 1;
    (void)PACKBUF_I_ADD(&peer->tcp->moved, (uint64_t)done);
    while (done) {
      struct iovec *piece = &peer->pieces[peer->piece];
      const size_t some = (size_t)done < piece->iov_len ? (size_t)done : piece->iov_len;
      piece->iov_base = (uint8_t *)piece->iov_base + some;
      piece->iov_len -= some;
      done -= (ssize_t)some;
      if (!piece->iov_len) peer->piece++;
    }
  }
  return went;
}

/* One read. 0: there is no more just now. */
static int packbuf_i_peer_read(packbuf_i_peer *peer) {
  uint64_t room = 0;
  uint8_t *to = NULL;
  ssize_t came;
  const char *why;
  if (peer->intake.payload >= PACKBUF_I_DIRECT) to = packbuf_i_intake_place(&peer->intake, &room);
  if (!to) room = PACKBUF_I_BUFFER;
  if (room > (uint64_t)PACKBUF_I_PART) room = PACKBUF_I_PART;
  came = recv(peer->fd, to ? to : peer->buffer, (size_t)room, 0);
  if (came < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (came <= 0) {
    packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the server is gone");
    return 0;
  }
  (void)PACKBUF_I_ADD(&peer->tcp->moved, (uint64_t)came);
  why = to ? packbuf_i_intake_came(&peer->intake, (uint64_t)came)
           : packbuf_i_intake_feed(&peer->intake, peer->buffer, (size_t)came);
  if (why) packbuf_i_peer_break(peer, packbuf_i_frame_status(why), why);
  return (uint64_t)came == room;
}

/* Writes and reads until something happened, or `until`. 1: bytes went; 2: bytes came. */
static int packbuf_i_peer_pump(packbuf_i_peer *peer, uint64_t until) {
  const uint64_t now = packbuf_now();
  const uint64_t left = until > now ? (until - now + 999999u) / 1000000u : 0;
  struct pollfd ready[2];
  const int went = packbuf_i_peer_write(peer);
  int count, happened = went;
  if (peer->broken) return 0;
  memset(ready, 0, sizeof ready);
  ready[0].fd = peer->fd;
  ready[0].events = POLLIN;
  if (packbuf_i_peer_wants_out(peer)) ready[0].events |= POLLOUT;
  if (peer->pairs.busy) {
    ready[1].fd = peer->pairs.channel->fd;
    ready[1].events = POLLIN;
  }
  packbuf_i_patience_start(&peer->patience);
  do count = poll(ready, peer->pairs.busy ? 2 : 1, peer->patience.until ? 0 : left < 1000 ? (int)left : 1000);
  while (packbuf_i_patience_more(&peer->patience, count));
  if (count < 0 && errno != EINTR) packbuf_i_peer_break(peer, PACKBUF_SYSTEM, "poll failed");
  if (count <= 0) return went;
  if (ready[1].revents && packbuf_i_peer_reap(peer)) happened = 2;
  if (!(ready[0].revents & (POLLIN | POLLHUP | POLLERR))) return happened;
  for (int i = 0; i < 16 && !peer->broken; i++)
    if (!packbuf_i_peer_read(peer)) break;
  packbuf_i_peer_fetch(peer);
  return 2;
}

/* ---- connecting ---- */

static void packbuf_i_peer_hello(packbuf_i_peer *peer) {
  packbuf_i_tcp *tcp = peer->tcp;
  packbuf_i_hello hello;
  packbuf_i_wire_to body = packbuf_i_frame_body(peer->frame, peer->frame_room);
  memset(&hello, 0, sizeof hello);
  hello.least = hello.most = PACKBUF_I_FRAME_VERSION;
  hello.features = tcp->nic ? PACKBUF_I_FEATURE_VERBS : 0;
  hello.quota = tcp->quota;
  memcpy(hello.session, tcp->session, sizeof hello.session);
  memcpy(hello.name, tcp->name, sizeof hello.name);
  if (!packbuf_i_random(hello.nonce, sizeof hello.nonce)) packbuf_i_peer_break(peer, PACKBUF_SYSTEM, "no random bytes");
  packbuf_i_hello_write(&body, &hello);
  peer->frame_size = packbuf_i_frame_end(peer->frame, &body, PACKBUF_I_HELLO, 0, 0, 0);
  peer->hello_size = peer->frame_size - PACKBUF_I_FRAME_HEADER;
  memcpy(peer->hello, peer->frame + PACKBUF_I_FRAME_HEADER, peer->hello_size);
  packbuf_i_peer_piece(peer, peer->frame, peer->frame_size);
}

static void packbuf_i_peer_proof(packbuf_i_peer *peer) {
  const packbuf_i_tcp *tcp = peer->tcp;
  packbuf_i_wire_to body = packbuf_i_frame_body(peer->frame, peer->frame_room);
  uint8_t proof[32];
  packbuf_i_proof_make(tcp->secret, tcp->secret_size, 'C', peer->hello, peer->hello_size, peer->welcome,
                       peer->welcome_size, proof);
  packbuf_i_wire_give(&body, proof, sizeof proof);
  peer->piece = peer->piece_count = 0;
  packbuf_i_peer_piece(peer, peer->frame, packbuf_i_frame_end(peer->frame, &body, PACKBUF_I_PROOF, 0, 0, 0));
}

/* Forgets what was under way, so that nothing answers what broke off: its memory is gone. */
static void packbuf_i_peer_reset(packbuf_i_peer *peer) {
  peer->piece = peer->piece_count = peer->granted_from = peer->granted_to = 0;
  peer->cancel = peer->pong = peer->ping = 0;
  peer->type = peer->count = peer->left = peer->answered = 0;
  peer->listed_room = 0;
  peer->broken = PACKBUF_OK;
  peer->why = NULL;
}

/* Connects and greets. */
static packbuf_status packbuf_i_peer_connect(packbuf_i_peer *peer, uint64_t deadline, packbuf_error *error) {
  packbuf_i_tcp *tcp = peer->tcp;
  const uint64_t now = packbuf_now();
  packbuf_status status = PACKBUF_DISCONNECTED;
  int proving = 0;
  if (deadline == PACKBUF_NO_WAIT) deadline = now + PACKBUF_I_AT_ONCE_NS;
  if (tcp->connect_ns < deadline - now || deadline < now) deadline = now + (deadline < now ? 0 : tcp->connect_ns);
  for (unsigned i = 0; i < tcp->address_count && status == PACKBUF_DISCONNECTED; i++)
    status = packbuf_i_address_connect(&tcp->addresses[i], deadline, &peer->fd, error);
  if (status) return status;
  if (peer->met) (void)PACKBUF_I_ADD(&tcp->reconnects, 1);
  peer->met = 1;
  memset(&peer->intake, 0, sizeof peer->intake);
  peer->intake.taker = &packbuf_i_peer_taker;
  peer->intake.context = peer;
  peer->intake.allocator = tcp->allocator;
  peer->intake.most_body = PACKBUF_I_FRAME_GREETING;
  peer->greeted = 0;
  packbuf_i_peer_reset(peer);
  packbuf_i_peer_hello(peer);
  while (peer->greeted != 2 && !peer->broken) {
    (void)packbuf_i_peer_pump(peer, deadline);
    if (peer->greeted == 1 && !proving && !peer->broken) {
      packbuf_i_peer_proof(peer);
      proving = 1;
    }
    if (peer->greeted != 2 && packbuf_now() >= deadline)
      packbuf_i_peer_break(peer, PACKBUF_TIMEOUT, "the server does not greet");
  }
  peer->intake.most_body = PACKBUF_I_FRAME_BODY;
  if (!peer->broken && tcp->nic) (void)packbuf_i_peer_pair(peer, deadline);
  if (!peer->broken) return PACKBUF_OK;
  packbuf_i_peer_close(peer);
  return packbuf_i_call_fail(error, peer->broken, peer->why);
}

/* Whether an idle connection still stands: a server says nothing to it but BYE. */
static int packbuf_i_peer_stands(packbuf_i_peer *peer) {
  uint8_t byte;
  if (peer->fd < 0) return 0;
  return recv(peer->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
}

/* A connection for one batch, which gives it back with packbuf_i_peer_leave. */
static packbuf_status packbuf_i_peer_take(packbuf_i_tcp *tcp, uint64_t deadline, packbuf_i_peer **peer,
                                          packbuf_error *error) {
  const uint64_t until = deadline == PACKBUF_NO_WAIT ? packbuf_now() + PACKBUF_I_AT_ONCE_NS : deadline;
  packbuf_i_peer *taken = NULL;
  packbuf_status status;
  packbuf_i_locked(&tcp->lock);
  for (;;) {
    for (unsigned i = 0; i < tcp->peer_count; i++)
      if (!tcp->peers[i].busy && (!taken || taken->fd < 0)) taken = &tcp->peers[i];
    if (taken || !packbuf_i_wait(&tcp->freed, &tcp->lock, until)) break;
  }
  if (taken) taken->busy = 1;
  packbuf_i_unlocked(&tcp->lock);
  if (!taken) return packbuf_i_call_fail(error, PACKBUF_TIMEOUT, "all connections were busy");
  *peer = taken;
  if (packbuf_i_peer_stands(taken)) {
    packbuf_i_peer_reset(taken);
    return PACKBUF_OK;
  }
  packbuf_i_peer_close(taken);
  status = packbuf_i_peer_connect(taken, deadline, error);
  if (!status) return PACKBUF_OK;
  packbuf_i_locked(&tcp->lock);
  taken->busy = 0;
  packbuf_i_signal_all(&tcp->freed);
  packbuf_i_unlocked(&tcp->lock);
  return status;
}

static void packbuf_i_peer_leave(packbuf_i_peer *peer) {
  packbuf_i_tcp *tcp = peer->tcp;
  /* answered before all was sent: the rest is the caller's memory, so the frame cannot be ended any more */
  if (peer->broken || peer->piece < peer->piece_count || (tcp->nic && !peer->pairs.pairs)) packbuf_i_peer_close(peer);
  packbuf_i_locked(&tcp->lock);
  peer->busy = 0;
  packbuf_i_signal_all(&tcp->freed);
  packbuf_i_unlocked(&tcp->lock);
}

/* ---- a request ---- */

static int packbuf_i_peer_frame_room(packbuf_i_peer *peer, size_t size) {
  uint8_t *more;
  if (size <= peer->frame_room) return 1;
  more = (uint8_t *)packbuf_i_heap(&peer->tcp->allocator, peer->frame, peer->frame_room, size);
  if (!more) return 0;
  peer->frame = more;
  peer->frame_room = size;
  return 1;
}

/* The most bytes that an item takes in a body. */
static size_t packbuf_i_item_room(const packbuf_item *item) {
  return 64 + PACKBUF_MAX_KEY + (item->ranges ? (size_t)item->range_count * 16 : 0);
}

static uint64_t packbuf_i_time_left(uint64_t deadline) {
  const uint64_t now = packbuf_now();
  if (deadline == PACKBUF_NO_WAIT || deadline == PACKBUF_FOREVER) return deadline;
  return deadline > now ? deadline - now : 1;
}

/* Whether the memory that an item names may be read or written by the device, if it has to be. */
static int packbuf_i_item_plot(packbuf_i_peer *peer, uint64_t index) {
  const packbuf_call *call = peer->call;
  const packbuf_item *item = &call->items[index];
  const int put = call->operation == PACKBUF_PUT;
  const void *memory = put ? item->from : item->into;
  const uint64_t size = put ? item->size : item->capacity;
  const packbuf_i_plot *plot;
  if ((!put && call->operation != PACKBUF_GET) || !memory || size <= PACKBUF_I_SMALL) return 1;
  plot = packbuf_i_tcp_plot(peer->tcp, call, index, memory, size);
  return plot && (put || plot->mr);
}

/* The items of the next request, from `from` on: as many as fit, none of them twice in a put, whose order in one
 * request means nothing. Those that end at once are passed over. Returns where the one after it begins. */
static uint64_t packbuf_i_peer_choose(packbuf_i_peer *peer, uint64_t from, size_t *room) {
  packbuf_call *call = peer->call;
  uint16_t seen[1024];
  memset(seen, 0, sizeof seen);
  peer->count = 0;
  *room = PACKBUF_I_FRAME_HEADER + 8;
  for (; from < call->count && peer->count < PACKBUF_I_TRIP && peer->count < peer->limits.most_items; from++) {
    packbuf_item *item = &call->items[from];
    packbuf_i_errand *step = &peer->steps[peer->count];
    const size_t more = packbuf_i_item_room(item);
    uint32_t slot = packbuf_i_wire_crc(item->key, strlen(item->key)) % 1024;
    packbuf_status status = PACKBUF_OK;
    if (call->cancelled && call->cancelled(call, from)) status = PACKBUF_CANCELLED;
    else if (item->ranges && item->range_count > PACKBUF_I_RANGES) status = PACKBUF_LIMIT;
    else if (peer->tcp->nic && !packbuf_i_item_plot(peer, from)) status = PACKBUF_UNREGISTERED;
    if (status) {
      item->status = status;
      call->done(call, from);
      continue;
    }
    for (; call->operation == PACKBUF_PUT && seen[slot]; slot = (slot + 1) % 1024)
      if (strcmp(peer->steps[seen[slot] - 1].item->key, item->key) == 0) return from;
    if (*room + more > PACKBUF_I_FRAME_BODY) return from;
    *room += more;
    memset(step, 0, sizeof *step);
    step->item = item;
    step->index = from;
    seen[slot] = (uint16_t)++peer->count;
  }
  return from;
}

/* How the bytes of a put go. plot: of its memory; payload: bytes that follow this request at once already. What finds
 * no room at the server is sent in vain: who was told so sends little for a while before it is granted. So does who
 * wants an answer at once, which on a narrow line would come behind all of that. */
static uint8_t packbuf_i_errand_way(const packbuf_i_peer *peer, const packbuf_item *item, const packbuf_i_plot *plot,
                                    uint64_t payload) {
  if (plot && plot->mr && item->size > PACKBUF_I_SMALL) return PACKBUF_I_WAY_REMOTE;
  if ((peer->careful || peer->call->deadline == PACKBUF_NO_WAIT) && item->size > PACKBUF_I_LITTLE)
    return PACKBUF_I_WAY_GRANTED;
  return item->size <= peer->limits.eager_item && payload + item->size <= peer->limits.eager_all
             ? PACKBUF_I_WAY_EAGER
             : PACKBUF_I_WAY_GRANTED;
}

/* Writes the request of those items. */
static void packbuf_i_peer_ask(packbuf_i_peer *peer, size_t room) {
  static const uint8_t types[] = {0, PACKBUF_I_PUT, PACKBUF_I_GET, PACKBUF_I_STAT, PACKBUF_I_REMOVE};
  packbuf_i_wire_to body;
  uint64_t payload = 0;
  peer->type = types[peer->call->operation];
  peer->left = peer->count;
  peer->id = PACKBUF_I_ADD(&peer->tcp->next_id, 1) + 1;
  peer->granted_from = peer->granted_to = peer->answered = 0;
  peer->fetched = 0;
  if (!packbuf_i_peer_frame_room(peer, room)) {
    packbuf_i_peer_break(peer, PACKBUF_OUT_OF_MEMORY, "out of memory");
    return;
  }
  body = packbuf_i_frame_body(peer->frame, peer->frame_room);
  packbuf_i_wire_give64(&body, packbuf_i_time_left(peer->call->deadline));
  for (unsigned i = 0; i < peer->count; i++) {
    packbuf_i_errand *step = &peer->steps[i];
    const packbuf_item *item = step->item;
    if (peer->type == PACKBUF_I_PUT) {
      const packbuf_i_plot *plot = NULL;
      if (peer->tcp->nic) plot = packbuf_i_tcp_plot(peer->tcp, peer->call, step->index, item->from, item->size);
      step->way = packbuf_i_errand_way(peer, item, plot, payload);
      if (step->way == PACKBUF_I_WAY_EAGER) payload += item->size;
      packbuf_i_put_item_write(&body, item, step->way, step->way == PACKBUF_I_WAY_REMOTE ? plot->mr->rkey : 0);
    } else if (peer->type == PACKBUF_I_GET) packbuf_i_get_item_write(&body, item);
    else
      packbuf_i_name_item_write(&body, item,
                                peer->type == PACKBUF_I_REMOVE ? item->flags & (uint32_t)PACKBUF_REMOVE_FORCE : 0);
  }
  peer->piece = peer->piece_count = 0;
  peer->asking = 1;
  if (peer->careful && peer->type == PACKBUF_I_PUT) peer->careful--;
  peer->frame_size = packbuf_i_frame_end(peer->frame, &body, peer->type, peer->count, peer->id, payload);
  packbuf_i_peer_piece(peer, peer->frame, peer->frame_size);
  for (unsigned i = 0; i < peer->count; i++) {
    packbuf_i_errand *step = &peer->steps[i];
    if (step->way == PACKBUF_I_WAY_EAGER) packbuf_i_peer_piece(peer, step->item->from, step->item->size);
    if (step->way != PACKBUF_I_WAY_GRANTED) step->gone = step->item->size;
    step->piece = peer->piece_count;
  }
}

/* Nothing is on its way out: what was answered before has ended. */
static void packbuf_i_peer_answered(packbuf_i_peer *peer) {
  for (unsigned i = 0; peer->answered && i < peer->count; i++)
    if (peer->steps[i].state == PACKBUF_I_STEP_ANSWERED)
      packbuf_i_step_end(peer, &peer->steps[i], peer->steps[i].status);
  peer->answered = 0;
}

/* Goes on until all is answered, the deadline has passed, or the connection broke. Bytes that go are a sign of life
 * too, as a large object on a narrow line takes long; but not the PING, which nobody may be there to read. */
static void packbuf_i_peer_wait(packbuf_i_peer *peer, uint64_t deadline) {
  uint64_t until = deadline, heard = packbuf_now();
  int pinged = 0;
  if (deadline == PACKBUF_NO_WAIT) until = heard + PACKBUF_I_AT_ONCE_NS;
  while (peer->left > peer->answered && !peer->broken) {
    uint64_t now = packbuf_now();
    int happened;
    if (now >= until && !peer->cancel) {
      peer->cancel = 1;
      until = now + PACKBUF_I_LAST_CALL_NS;
    } else if (now >= until) packbuf_i_peer_break(peer, PACKBUF_TIMEOUT, "the deadline passed");
    happened = packbuf_i_peer_pump(peer, until);
    if (peer->piece == peer->piece_count) packbuf_i_peer_answered(peer);
    now = packbuf_now();
    if (happened > pinged) heard = now;
    if (happened == 2) pinged = 0;
    if (now - heard > PACKBUF_I_GIVEN_UP_NS)
      packbuf_i_peer_break(peer, PACKBUF_DISCONNECTED, "the server has not said a word for 30 s");
    else if (!pinged && now - heard > PACKBUF_I_QUIET_NS && peer->piece == peer->piece_count)
      peer->ping = 1, pinged = 1;
  }
}

/* Whether the last byte of an item that is put was sent. */
static int packbuf_i_step_sent(const packbuf_i_peer *peer, const packbuf_i_errand *step) {
  return step->gone == step->item->size && (!peer->asking || peer->piece >= step->piece);
}

/* What becomes of the items that a broken connection left. A put whose last byte was sent may have happened. */
static void packbuf_i_peer_settle(packbuf_i_peer *peer) {
  const int asked = peer->piece > 0 || peer->piece_count == 0;
  if (peer->broken) packbuf_i_pairs_close(&peer->pairs); /* before memory goes back: nothing is read into it any more */
  for (unsigned i = 0; i < peer->count; i++) {
    packbuf_i_errand *step = &peer->steps[i];
    packbuf_status status = step->state == PACKBUF_I_STEP_ANSWERED ? step->status : peer->broken;
    if (step->state == PACKBUF_I_STEP_DONE) continue;
    if (step->state != PACKBUF_I_STEP_ANSWERED && status == PACKBUF_TIMEOUT && peer->type == PACKBUF_I_PUT && asked &&
        packbuf_i_step_sent(peer, step))
      status = PACKBUF_DISCONNECTED;
    packbuf_i_step_end(peer, step, status);
  }
}

static void packbuf_i_tcp_run(void *state, packbuf_call *call) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)state;
  packbuf_i_peer *peer = NULL;
  packbuf_status status = PACKBUF_OK;
  uint64_t at = 0;
  if (call->deadline != PACKBUF_NO_WAIT && packbuf_now() >= call->deadline) status = PACKBUF_TIMEOUT;
  while (at < call->count && !status) {
    size_t room;
    if (!peer) status = packbuf_i_peer_take(tcp, call->deadline, &peer, NULL);
    if (status) break;
    peer->call = call;
    at = packbuf_i_peer_choose(peer, at, &room);
    if (!peer->count) continue;
    peer->rounds = 0;
    do {
      packbuf_i_peer_ask(peer, room);
      packbuf_i_peer_wait(peer, call->deadline);
    } while (packbuf_i_peer_regather(peer, &room));
    packbuf_i_peer_settle(peer);
    status = peer->broken ? peer->broken : peer->cancel ? PACKBUF_TIMEOUT : PACKBUF_OK;
    if (status || peer->piece < peer->piece_count) {
      packbuf_i_peer_leave(peer);
      peer = NULL;
    }
  }
  if (peer) packbuf_i_peer_leave(peer);
  for (; at < call->count; at++) { /* nothing of these was sent */
    call->items[at].status = status;
    call->done(call, at);
  }
}

/* ---- looking after it ---- */

/* LIST, of which LISTED is the answer: in the peer, which the caller leaves when this is OK. */
static packbuf_status packbuf_i_tcp_ask_list(packbuf_i_tcp *tcp, const packbuf_i_list_ask *ask, packbuf_listed *listed,
                                             uint64_t deadline, packbuf_i_listing *listing, uint64_t *count,
                                             packbuf_error *error) {
  packbuf_i_peer *peer;
  packbuf_i_wire_to body;
  packbuf_status status = packbuf_i_peer_take(tcp, deadline, &peer, error);
  if (status) return status;
  peer->type = PACKBUF_I_LIST;
  peer->count = 0;
  peer->left = 1;
  peer->listed = listed;
  peer->listed_room = ask->most;
  peer->id = PACKBUF_I_ADD(&tcp->next_id, 1) + 1;
  body = packbuf_i_frame_body(peer->frame, peer->frame_room);
  packbuf_i_list_write(&body, ask);
  peer->piece = peer->piece_count = 0;
  packbuf_i_peer_piece(peer, peer->frame, packbuf_i_frame_end(peer->frame, &body, PACKBUF_I_LIST, 0, peer->id, 0));
  packbuf_i_peer_wait(peer, deadline);
  *listing = peer->listing;
  *count = peer->listed_count;
  status = peer->broken ? peer->broken : (packbuf_status)peer->listing.status;
  if (status) packbuf_i_call_fail(error, status, peer->broken ? peer->why : "the server cannot say");
  packbuf_i_peer_leave(peer);
  return status;
}

static packbuf_status packbuf_i_tcp_describe(void *state, packbuf_store_info *info, uint64_t deadline,
                                             packbuf_error *error) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)state;
  packbuf_i_list_ask ask;
  packbuf_i_listing listing;
  packbuf_status status;
  uint64_t count;
  memset(&ask, 0, sizeof ask);
  status = packbuf_i_tcp_ask_list(tcp, &ask, NULL, deadline, &listing, &count, error);
  if (status) return status;
  info->transport = tcp->nic ? "verbs" : "tcp";
  info->stepped_down = tcp->stepped_down;
  memcpy(info->uri, tcp->uri, sizeof info->uri);
  info->capabilities = tcp->capabilities;
  info->size = listing.size;
  info->used = listing.used;
  info->objects = listing.objects;
  info->most_objects = listing.most_objects;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_tcp_list(void *state, const char *prefix, uint64_t *cursor, packbuf_listed *listed,
                                         uint64_t capacity, uint64_t *count, uint64_t deadline, packbuf_error *error) {
  packbuf_i_list_ask ask;
  packbuf_i_listing listing;
  packbuf_status status;
  memset(&ask, 0, sizeof ask);
  *count = 0;
  if (!capacity) return PACKBUF_OK;
  if (prefix && strlen(prefix) >= sizeof ask.prefix) { /* no key begins so */
    *cursor = 0;
    return PACKBUF_OK;
  }
  if (prefix) memcpy(ask.prefix, prefix, strlen(prefix));
  ask.cursor = *cursor;
  ask.most = capacity < PACKBUF_I_LISTED_MOST ? (uint32_t)capacity : PACKBUF_I_LISTED_MOST;
  status = packbuf_i_tcp_ask_list((packbuf_i_tcp *)state, &ask, listed, deadline, &listing, count, error);
  if (!status) *cursor = listing.cursor;
  return status;
}

static packbuf_status packbuf_i_tcp_collect(void *state, uint64_t deadline, uint64_t *left, packbuf_error *error) {
  packbuf_i_list_ask ask;
  packbuf_i_listing listing;
  packbuf_status status;
  uint64_t count;
  memset(&ask, 0, sizeof ask);
  ask.options = PACKBUF_I_LIST_COLLECT;
  status = packbuf_i_tcp_ask_list((packbuf_i_tcp *)state, &ask, NULL, deadline, &listing, &count, error);
  if (!status && left) *left = listing.left;
  return status;
}

static void packbuf_i_tcp_let_go(void *state, uint64_t token) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)state;
  packbuf_slice *kept = (packbuf_slice *)(uintptr_t)token;
  packbuf_slice_release(kept);
  (void)packbuf_i_heap(&tcp->allocator, kept, sizeof *kept, 0);
}

static void packbuf_i_tcp_count(void *state, packbuf_counters *counters) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)state;
  counters->bytes_moved += PACKBUF_I_LOAD(&tcp->moved);
  counters->reconnects += PACKBUF_I_LOAD(&tcp->reconnects);
}

/* ---- opening ---- */

static void packbuf_i_tcp_close(void *state) {
  packbuf_i_tcp *tcp = (packbuf_i_tcp *)state;
  const packbuf_allocator allocator = tcp->allocator;
  for (unsigned i = 0; tcp->peers && i < tcp->peer_count; i++) {
    packbuf_i_peer_close(&tcp->peers[i]);
    (void)packbuf_i_heap(&allocator, tcp->peers[i].buffer, PACKBUF_I_BUFFER, 0);
    (void)packbuf_i_heap(&allocator, tcp->peers[i].frame, tcp->peers[i].frame_room, 0);
  }
  packbuf_i_tcp_end_verbs(tcp);
  (void)packbuf_i_heap(&allocator, tcp->peers, tcp->peer_count * sizeof *tcp->peers, 0);
  if (tcp->own_pool) (void)packbuf_pool_close(tcp->pool, NULL);
  packbuf_i_signal_end(&tcp->freed);
  packbuf_i_lock_end(&tcp->lock);
  memset(tcp->secret, 0, sizeof tcp->secret);
  (void)packbuf_i_heap(&allocator, tcp, sizeof *tcp, 0);
}

static packbuf_status packbuf_i_tcp_peers(packbuf_i_tcp *tcp, unsigned count, packbuf_error *error) {
  enum { FRAME = 4096 }; /* enough for all but requests */
  tcp->peers = (packbuf_i_peer *)packbuf_i_heap(&tcp->allocator, NULL, 0, count * sizeof *tcp->peers);
  if (!tcp->peers) return packbuf_i_no_memory(error);
  tcp->peer_count = count;
  for (unsigned i = 0; i < count; i++) {
    packbuf_i_peer *peer = &tcp->peers[i];
    peer->tcp = tcp;
    peer->fd = -1;
    packbuf_i_patience_open(&peer->patience);
    peer->buffer = (uint8_t *)packbuf_i_heap(&tcp->allocator, NULL, 0, PACKBUF_I_BUFFER);
    if (!peer->buffer || !packbuf_i_peer_frame_room(peer, FRAME)) return packbuf_i_no_memory(error);
  }
  return PACKBUF_OK;
}

/* The first connection, by way of verbs; where they are not to be had, and that is allowed, without. */
static packbuf_status packbuf_i_tcp_first(packbuf_i_tcp *tcp, int verbs, int may_step_down, packbuf_i_peer **peer,
                                          packbuf_error *error) {
  packbuf_error why;
  packbuf_status status = verbs ? packbuf_i_tcp_start_verbs(tcp, &why) : PACKBUF_OK;
  if (!status) status = packbuf_i_peer_take(tcp, packbuf_now() + tcp->connect_ns, peer, &why);
  if (verbs && may_step_down && (status == PACKBUF_UNAVAILABLE || status == PACKBUF_SYSTEM)) {
    packbuf_i_tcp_end_verbs(tcp);
    tcp->stepped_down = why.message;
    status = packbuf_i_peer_take(tcp, packbuf_now() + tcp->connect_ns, peer, &why);
  }
  if (status && error) *error = why;
  return status;
}

static packbuf_status packbuf_i_tcp_start(packbuf_i_tcp *tcp, const packbuf_store_options *options, int verbs,
                                          packbuf_error *error) {
  const unsigned count = options->connections ? options->connections : 2;
  const char *name = options->name ? options->name : "";
  packbuf_i_uri parts;
  packbuf_i_peer *peer;
  packbuf_status status = packbuf_i_uri_start(&parts, tcp->uri, error);
  if (!status && count > 64) status = packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "at most 64 connections");
  if (!status)
    status = packbuf_i_addresses_find(parts.rest, parts.rest_size, tcp->addresses, &tcp->address_count, error);
  if (!status)
    status = packbuf_i_secret_find(options->secret, options->secret_size, tcp->secret, &tcp->secret_size, error);
  if (status) return status;
  if (!packbuf_i_random(tcp->session, sizeof tcp->session))
    return packbuf_i_system_fail(error, "no random bytes", errno);
  for (size_t i = 0; name[i] && i + 1 < sizeof tcp->name; i++)
    tcp->name[i] = (uint8_t)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
  tcp->quota = options->quota;
  tcp->connect_ns = (options->connect_ms ? options->connect_ms : 5000u) * (uint64_t)1000000u;
  tcp->pool = options->pool;
  if (!tcp->pool) {
    packbuf_pool_options pool;
    memset(&pool, 0, sizeof pool);
    pool.size = options->pool_size;
    status = packbuf_pool_open(&pool, &tcp->pool, error);
    if (status) return status;
    tcp->own_pool = 1;
  }
  status = packbuf_i_tcp_peers(tcp, count, error);
  if (!status) status = packbuf_i_tcp_first(tcp, verbs, options->step_down, &peer, error);
  if (status) return status;
  tcp->capabilities = peer->limits.capabilities &
                      (unsigned)(PACKBUF_CAN_RANGES | PACKBUF_CAN_NEWEST | PACKBUF_CAN_SUPERSEDE |
                                 PACKBUF_CAN_REMOVE_NOW | PACKBUF_CAN_TTL | PACKBUF_CAN_EVICT | PACKBUF_CAN_LIST);
  tcp->capabilities |= PACKBUF_CAN_RANGES | PACKBUF_CAN_QUOTA | PACKBUF_CAN_OUTLIVE; /* what the server does itself */
  packbuf_i_peer_leave(peer);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_tcp_make(void **state, const char *uri, const packbuf_store_options *options, int verbs,
                                         packbuf_error *error) {
  const packbuf_allocator allocator = options->allocator ? *options->allocator : packbuf_i_plain_heap;
  packbuf_store_options with = *options;
  packbuf_i_tcp *tcp;
  packbuf_status status;
  tcp = (packbuf_i_tcp *)packbuf_i_heap(&allocator, NULL, 0, sizeof *tcp);
  if (!tcp) return packbuf_i_no_memory(error);
  tcp->allocator = allocator;
  if (!packbuf_i_lock_start(&tcp->lock) || !packbuf_i_signal_start(&tcp->freed))
    status = packbuf_i_call_fail(error, PACKBUF_SYSTEM, "a lock cannot be made");
  else
    status =
        packbuf_i_uri_options(uri, &with, tcp->uri, sizeof tcp->uri, verbs ? packbuf_i_verbs_option : NULL, tcp, error);
  if (!status) status = packbuf_i_tcp_start(tcp, &with, verbs, error);
  if (status) packbuf_i_tcp_close(tcp);
  else *state = tcp;
  return status;
}

static packbuf_status packbuf_i_tcp_open(void **state, const char *uri, const packbuf_store_options *options,
                                         packbuf_error *error) {
  return packbuf_i_tcp_make(state, uri, options, 0, error);
}

static const packbuf_driver packbuf_i_tcp_driver = {sizeof(packbuf_driver),
                                                    "tcp",
                                                    packbuf_i_tcp_open,
                                                    packbuf_i_tcp_close,
                                                    packbuf_i_tcp_describe,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    packbuf_i_tcp_run,
                                                    packbuf_i_tcp_let_go,
                                                    packbuf_i_tcp_list,
                                                    packbuf_i_tcp_collect,
                                                    packbuf_i_tcp_count,
                                                    NULL,
                                                    NULL,
                                                    0,
                                                    NULL};
