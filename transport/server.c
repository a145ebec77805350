/* transport/server.c: one store for many machines: sockets and event loops, each connection in one of them, none with a
 * thread.
 * May use: system, text, sockets, secret, server_link, the public calls of stores. Must not know: what is said
 * in a connection, drivers. */
#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/eventfd.h>
#endif

/* ---- sockets ---- */

#if defined(__linux__)

enum { PACKBUF_I_STAGE = 65536, PACKBUF_I_STRAIGHT = 16384, PACKBUF_I_PIECES = 256, PACKBUF_I_ROUNDS = 16 };
enum { PACKBUF_I_SIP = 64 }; /* bytes that are read at a time of a client whose every word takes long */

#define PACKBUF_I_TICK_NS 20000000u         /* how often room is asked for again */
#define PACKBUF_I_SWEEP_NS 500000000u       /* how often connections are looked at that do nothing */
#define PACKBUF_I_HURRY_NS 100000000u       /* and that while room is wanted, which some of them may hold */
#define PACKBUF_I_GREETING_NS 10000000000u  /* to say HELLO and PROOF */
#define PACKBUF_I_CROWDED_NS 1000000000u    /* and that while half of all connections are taken */
#define PACKBUF_I_TURN_NS 2000000u          /* after which others are looked at, though more has come */
#define PACKBUF_I_SILENCE_NS 10000000000u   /* after which a client with a request under way is asked */
#define PACKBUF_I_DEAD_NS 30000000000u      /* and taken for dead */
#define PACKBUF_I_DENIED_NS 1000000000u     /* that an address waits which failed three times */
#define PACKBUF_I_LAST_WORDS_NS 1000000000u /* to take the BYE */

typedef struct packbuf_i_loop {
  struct packbuf_server *server;
  int epoll, wake;
  packbuf_i_ibv_channel *channel; /* verbs: where completions of its connections are told; NULL */
  pthread_t thread;
  int running;
  packbuf_i_patience patience;
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
  int listener, metrics, spare;          /* spare: a descriptor for when there are no more */
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
  link->channel = loop->channel;
  link->piece = PACKBUF_I_STAGE;
  link->failures_at = packbuf_i_address_hash(from) % PACKBUF_I_SUSPECTS;
  if (packbuf_i_address_loopback(from)) packbuf_i_socket_near(fd); /* the listener may be for others too */
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
    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && server->spare >= 0) {
      /* turned away: what stays in the queue would wake this loop for ever */
      (void)close(server->spare);
      fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (fd >= 0) (void)close(fd);
      server->spare = fcntl(listener, F_DUPFD_CLOEXEC, 0);
      if (fd >= 0) continue;
    }
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
    link->moved = link->gone = packbuf_now();
    packbuf_i_link_went(link, (uint64_t)done);
  }
}

/* Bytes of a client by way of the stage. What it says in few bytes may take long (lists): then fewer are read at once,
 * so that the others of this loop need not wait for all of it. */
static void packbuf_i_link_stage(packbuf_i_loop *loop, packbuf_i_link *link, size_t size) {
  uint64_t took;
  packbuf_i_link_feed(link, loop->stage, size);
  took = packbuf_now() - link->came;
  if (took > PACKBUF_I_TURN_NS && link->piece > PACKBUF_I_SIP) link->piece /= 2;
  else if (took < PACKBUF_I_TURN_NS / 4 && link->piece < sizeof loop->stage) link->piece *= 2;
}

/* One read. 0: there is no more just now. */
static int packbuf_i_link_read_some(packbuf_i_loop *loop, packbuf_i_link *link) {
  uint64_t room = 0;
  uint8_t *to = NULL;
  ssize_t came;
  if (link->intake.payload >= PACKBUF_I_STRAIGHT) to = packbuf_i_intake_place(&link->intake, &room);
  if (room < PACKBUF_I_STRAIGHT) to = NULL;
  if (room > PACKBUF_I_CHUNK_OUT) room = PACKBUF_I_CHUNK_OUT;
  if (!to) room = link->piece;
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
  } else packbuf_i_link_stage(loop, link, (size_t)came);
  return (uint64_t)came == room;
}

/* Reads and writes what can be, and says what to be woken for. */
static void packbuf_i_link_run(packbuf_i_loop *loop, packbuf_i_link *link, unsigned happened) {
  packbuf_server *server = loop->server;
  struct epoll_event event;
  if (happened & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    const uint64_t until = packbuf_now() + PACKBUF_I_TURN_NS;
    for (int i = 0; i < PACKBUF_I_ROUNDS && !link->dead && !packbuf_i_link_full(link); i++)
      if (!packbuf_i_link_read_some(loop, link) || link->came > until) break;
  }
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
  if (!packbuf_i_link_full(link) && !link->held) event.events |= (unsigned)EPOLLIN;
  if (event.events == link->events) return;
  link->events = event.events;
  (void)epoll_ctl(loop->epoll, EPOLL_CTL_MOD, link->fd, &event);
}

/* Whether its machine has not acknowledged for so long what was sent to it: it is gone, or the way to it. One that
 * reads nothing acknowledges that it has no room. */
static int packbuf_i_link_unheard(const packbuf_i_link *link) {
  struct tcp_info info;
  socklen_t size = sizeof info;
  memset(&info, 0, sizeof info);
  if (getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  return (info.tcpi_unacked || info.tcpi_probes > 1) && info.tcpi_last_ack_recv > PACKBUF_I_DEAD_NS / 1000000u;
}

/* Ends what is dead, too slow or too silent. greeting: how long that may take. */
static void packbuf_i_link_look_at(packbuf_i_link *link, uint64_t now, uint64_t greeting) {
  packbuf_i_service *service = link->service;
  if (link->state == PACKBUF_I_LINK_ENDING) {
    if (link->gone + PACKBUF_I_LAST_WORDS_NS < now) link->dead = 1;
  } else if (link->http) {
    if (now - link->born > greeting || now - link->moved > PACKBUF_I_LAST_WORDS_NS) link->dead = 1;
  } else if (link->state != PACKBUF_I_LINK_OPEN) {
    if (now - link->born > greeting) packbuf_i_link_bye(link, PACKBUF_TIMEOUT, "no greeting");
  } else if (PACKBUF_I_LOAD(&service->wanting) &&
             (packbuf_i_link_holds(link, now, service->lease_ns) ||
              (link->plane && link->plane->leased && link->plane->moved + service->lease_ns < now))) {
    packbuf_i_service_log(service, PACKBUF_LOG_WARNING,
                          "a client that made no progress was cut off: its room is wanted");
    PACKBUF_I_SERVED(service, recovered, 1);
    link->dead = 1;
  } else if (link->sending && now - link->came > PACKBUF_I_DEAD_NS && now - link->moved > PACKBUF_I_DEAD_NS &&
             packbuf_i_link_unheard(link)) {
    link->dead = 1;
  } else if (link->requests && !link->sending && now - link->came > PACKBUF_I_SILENCE_NS) {
    if (link->pinged <= link->came) {
      link->pinged = now;
      packbuf_i_link_say(link, PACKBUF_I_PING, 0);
    } else if (now - link->pinged > PACKBUF_I_DEAD_NS - PACKBUF_I_SILENCE_NS) link->dead = 1;
  }
}

/* ---- verbs ---- */

/* Completions of a loop's connections. */
static void packbuf_i_loop_completions(packbuf_i_loop *loop) {
  void *user;
  while (packbuf_i_channel_event(loop->server->service.nic, loop->channel, &user)) {
    packbuf_i_link *link = (packbuf_i_link *)user;
    packbuf_i_link_pulled(link);
    packbuf_i_link_run(loop, link, 0);
  }
}

/* What happened to the device. Connections learn of it by themselves: this is for people. */
static void packbuf_i_server_device(packbuf_server *server) {
  int event;
  while ((event = packbuf_i_nic_event(server->service.nic)) != 0)
    packbuf_i_service_log(&server->service, PACKBUF_LOG_WARNING,
                          event == PACKBUF_I_IBV_EVENT_PORT_ERR      ? "the RDMA device's port went down"
                          : event == PACKBUF_I_IBV_EVENT_PORT_ACTIVE ? "the RDMA device's port is up"
                                                                     : "the RDMA device failed");
}

/* A device that reads into the store's memory, and lets it be read. */
static packbuf_status packbuf_i_server_verbs(packbuf_server *server, const packbuf_i_address *address,
                                             const char *device, packbuf_error *error) {
  packbuf_i_service *service = &server->service;
  packbuf_status status = packbuf_i_nic_open(&service->allocator, device, &address->as.any, &service->nic, error);
  if (!status) status = packbuf_i_store_memory(service->store, &service->memory, error);
  if (!status)
    status = packbuf_i_plot_open(service->nic, service->memory.writable, service->memory.size,
                                 PACKBUF_I_IBV_LOCAL_WRITE | PACKBUF_I_IBV_REMOTE_READ, &service->slab, error);
  if (!status) PACKBUF_I_SERVED(service, registrations, 1);
  if (!status) PACKBUF_I_SERVED(service, registered, service->memory.size);
  return status;
}

/* ---- loops ---- */

/* Looks after all connections of a loop; whether one waits. */
static int packbuf_i_loop_sweep(packbuf_i_loop *loop, int all) {
  packbuf_server *server = loop->server;
  const uint64_t now = packbuf_now();
  const uint32_t stopping = PACKBUF_I_LOAD(&server->stopping);
  const int crowded = PACKBUF_I_LOAD(&server->connections) > server->most / 2;
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
    if (all) packbuf_i_link_look_at(link, now, crowded ? PACKBUF_I_CROWDED_NS : PACKBUF_I_GREETING_NS);
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
    int count, told = 0;
    uint64_t now;
    packbuf_i_patience_start(&loop->patience);
    do count = epoll_wait(loop->epoll, events, 64, loop->patience.until ? 0 : wait_ms);
    while (packbuf_i_patience_more(&loop->patience, count));
    if (stopping == 2 || (stopping && loop->links.after == &loop->links)) break;
    for (int i = 0; i < count; i++) {
      void *who = events[i].data.ptr;
      if (who == &loop->wake) packbuf_i_loop_take(loop);
      else if (who == &loop->channel) told = 1;
      else if (who == &server->service.nic) packbuf_i_server_device(server);
      else if (who == &server->listener || who == &server->metrics) {
        if (!stopping) packbuf_i_server_accept(server, *(const int *)who);
      } else packbuf_i_link_run(loop, (packbuf_i_link *)who, events[i].events);
    }
    if (told) packbuf_i_loop_completions(loop); /* last: it may close a connection that another event here is of */
    now = packbuf_now();
    if (now - swept >= (PACKBUF_I_LOAD(&server->service.wanting) ? PACKBUF_I_HURRY_NS : PACKBUF_I_SWEEP_NS) ||
        stopping) {
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
  packbuf_i_patience_open(&loop->patience);
  loop->links.before = loop->links.after = &loop->links;
  loop->epoll = epoll_create1(EPOLL_CLOEXEC);
  loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  event.events = EPOLLIN;
  event.data.ptr = &loop->wake;
  if (loop->epoll < 0 || loop->wake < 0 || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &event) != 0) return 0;
  if (server->service.nic) {
    loop->channel = packbuf_i_channel_open(server->service.nic);
    event.data.ptr = &loop->channel;
    if (!loop->channel || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->channel->fd, &event) != 0) return 0;
  }
  if (loop == server->loops) {
    const int device = server->service.nic ? server->service.nic->context->async_fd : -1;
    event.data.ptr = &server->service.nic;
    if (device >= 0 && epoll_ctl(loop->epoll, EPOLL_CTL_ADD, device, &event) != 0) return 0;
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
    if (loop->channel) (void)server->service.nic->ibv.destroy_comp_channel(loop->channel);
    if (loop->epoll >= 0) (void)close(loop->epoll);
    if (loop->wake >= 0) (void)close(loop->wake);
    packbuf_i_lock_end(&loop->lock);
  }
  if (server->listener >= 0) (void)close(server->listener);
  if (server->metrics >= 0) (void)close(server->metrics);
  if (server->spare >= 0) (void)close(server->spare);
  (void)packbuf_i_heap(&allocator, server->loops, server->loop_count * sizeof *server->loops, 0);
  if (server->service.nic) {
    packbuf_i_plot_close(server->service.nic, &server->service.slab);
    packbuf_i_nic_close(server->service.nic);
  }
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
  if (packbuf_i_address_loopback(address)) packbuf_i_socket_near(fd); /* and so each that is accepted there */
  if (bind(fd, &address->as.any, address->size) != 0 || listen(fd, 512) != 0)
    return packbuf_i_system_fail(error, "the address cannot be listened at", errno);
  address->size = sizeof address->as;
  if (getsockname(fd, &address->as.any, &address->size) != 0) return packbuf_i_system_fail(error, "no address", errno);
  return PACKBUF_OK;
}

/* Writes "SCHEME://HOST:PORT": the host that was asked for and the port that it is. */
static void packbuf_i_address_uri(const packbuf_i_address *address, const char *scheme, const char *asked, size_t size,
                                  char *uri) {
  unsigned port = ntohs(address->as.any.sa_family == AF_INET ? address->as.four.sin_port : address->as.six.sin6_port);
  char digits[8];
  size_t at = strlen(scheme), count = 0;
  while (size && asked[size - 1] != ':') size--;
  memcpy(uri, scheme, at);
  memcpy(uri + at, "://", 3);
  at += 3;
  if (size <= 1) memcpy(uri + at, "127.0.0.1:", 10), at += 10;
  else memcpy(uri + at, asked, size), at += size;
  do digits[count++] = (char)('0' + port % 10), port /= 10;
  while (port);
  while (count) uri[at++] = digits[--count];
  uri[at] = 0;
}

/* ---- what users call ---- */

/* Listens where a URI says. */
static packbuf_status packbuf_i_server_listen(packbuf_server *server, const char *uri,
                                              const packbuf_server_options *options, packbuf_error *error) {
  const char *const metrics = options->metrics;
  packbuf_i_address found[PACKBUF_I_ADDRESSES];
  packbuf_i_uri parts;
  unsigned count;
  int verbs;
  packbuf_status status = packbuf_i_uri_start(&parts, uri, error);
  if (status) return status;
  if (parts.base + 16 > PACKBUF_MAX_URI)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "the URI is too long");
  verbs = packbuf_i_uri_has_scheme(&parts, "verbs");
  if (!verbs && !packbuf_i_uri_has_scheme(&parts, "tcp"))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT,
                               "a server's URI is tcp://HOST:PORT or verbs://HOST:PORT");
  if (parts.base != parts.size)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a server's URI has no options");
  status = packbuf_i_addresses_find(parts.rest, parts.rest_size, found, &count, error);
  if (status) return status;
  if (!server->service.secret_size && !packbuf_i_address_loopback(&found[0]))
    return packbuf_i_call_fail(
        error, PACKBUF_DENIED, "a server that others can reach needs a secret (options.secret, PACKBUF_SECRET_FILE)");
  if (verbs) status = packbuf_i_server_verbs(server, &found[0], options->device, error);
  if (!status) status = packbuf_i_address_listen(&found[0], &server->listener, error);
  if (status) return status;
  packbuf_i_address_uri(&found[0], verbs ? "verbs" : "tcp", parts.rest, parts.rest_size, server->uri);
  server->spare = fcntl(server->listener, F_DUPFD_CLOEXEC, 0);
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
  service->pace = service->lease_ns / 1000000u * PACKBUF_I_PACE;
  service->quota = options->quota;
  service->log = options->log;
  service->log_context = options->log_context;
  server->most = options->connections ? options->connections : 4096;
  server->loop_count = options->threads ? options->threads : 2;
  if (server->loop_count > 64) server->loop_count = 64;
  status = packbuf_i_secret_find(options->secret, options->secret_size, service->secret, &service->secret_size, error);
  if (status) return status;
  if (!packbuf_i_random(service->id, sizeof service->id)) return packbuf_i_system_fail(error, "no random bytes", errno);
  status = packbuf_i_server_listen(server, uri, options, error);
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
  made->listener = made->metrics = made->spare = -1;
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
