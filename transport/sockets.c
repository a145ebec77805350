/* transport/sockets.c: what both ends of a connection need of the system: addresses, sockets and how they are set,
 * connecting, and how long to look for what comes before a thread sleeps.
 * May use: system, text, frames (checksums). Must not know: what is said in a connection, who says it. */
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- addresses and sockets ---- */

typedef struct packbuf_i_address {
  union {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    struct sockaddr_storage most;
  } as;
  socklen_t size;
} packbuf_i_address;

/* Takes HOST:PORT apart; [HOST] may be in brackets, or empty: loopback. 0: it is none. */
static int packbuf_i_address_split(const char *text, size_t size, char *host, size_t room, uint64_t *port) {
  size_t colon = size, length;
  while (colon && text[colon - 1] != ':') colon--;
  if (!colon || !packbuf_i_parse_decimal(text + colon, size - colon, 65535, port)) return 0;
  length = colon - 1;
  if (length >= 2 && text[0] == '[' && text[length - 1] == ']') text++, length -= 2;
  else if (memchr(text, ':', length)) return 0;
  if (length >= room) return 0;
  memcpy(host, text, length);
  host[length] = 0;
  if (!length) memcpy(host, "127.0.0.1", 10);
  return 1;
}

enum { PACKBUF_I_ADDRESSES = 4 };

/* The addresses of HOST:PORT, one at least. */
static packbuf_status packbuf_i_addresses_find(const char *text, size_t size, packbuf_i_address *addresses,
                                               unsigned *count, packbuf_error *error) {
  struct addrinfo hints, *found = NULL;
  char host[PACKBUF_MAX_URI + 1];
  uint64_t port;
  *count = 0;
  if (!packbuf_i_address_split(text, size, host, sizeof host, &port))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "an address is HOST:PORT");
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host, NULL, &hints, &found) != 0)
    return packbuf_i_call_fail(error, PACKBUF_DISCONNECTED, "the host's name has no address");
  for (const struct addrinfo *one = found; one && *count < PACKBUF_I_ADDRESSES; one = one->ai_next) {
    packbuf_i_address *address = &addresses[*count];
    if (one->ai_family != AF_INET && one->ai_family != AF_INET6) continue;
    memset(address, 0, sizeof *address);
    memcpy(&address->as, one->ai_addr, one->ai_addrlen);
    address->size = (socklen_t)one->ai_addrlen;
    if (one->ai_family == AF_INET) address->as.four.sin_port = htons((uint16_t)port);
    else address->as.six.sin6_port = htons((uint16_t)port);
    ++*count;
  }
  freeaddrinfo(found);
  if (!*count) return packbuf_i_call_fail(error, PACKBUF_DISCONNECTED, "the host's name has no address");
  return PACKBUF_OK;
}

static int packbuf_i_address_loopback(const packbuf_i_address *address) {
  static const uint8_t mapped[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 127};
  if (address->as.any.sa_family == AF_INET) return ntohl(address->as.four.sin_addr.s_addr) >> 24 == 127;
  return IN6_IS_ADDR_LOOPBACK(&address->as.six.sin6_addr) || memcmp(&address->as.six.sin6_addr, mapped, 13) == 0;
}

/* A number for an address without its port. */
static uint32_t packbuf_i_address_hash(const packbuf_i_address *address) {
  if (address->as.any.sa_family == AF_INET) return packbuf_i_wire_crc(&address->as.four.sin_addr, 4);
  return packbuf_i_wire_crc(&address->as.six.sin6_addr, 8); /* the network: one who has it has all of its addresses */
}

/* An end that is idle, and whose other end is gone without a word, is told so after half a minute: the system's own
 * choice would be two hours. */
static int packbuf_i_socket_prepare(int fd) {
  const int yes = 1;
#if defined(TCP_KEEPIDLE) && defined(TCP_KEEPINTVL) && defined(TCP_KEEPCNT)
  const int idle = 15, between = 5, count = 3;
#endif
  const int flags = fcntl(fd, F_GETFL);
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
#if defined(TCP_KEEPIDLE) && defined(TCP_KEEPINTVL) && defined(TCP_KEEPCNT)
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
#endif
#if defined(SO_NOSIGPIPE)
  (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes);
#endif
  return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* Between two ends of one machine there is no line to share. Congestion control that paces what it sends (BBR, which
 * many machines have for far lines) halves the rate there; reno, which every Linux allows, sends what it has. Best
 * said before the connection is made: a socket that was paced once stays so, if less. */
static void packbuf_i_socket_near(int fd) {
#if defined(TCP_CONGESTION)
  (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
#else
  (void)fd;
#endif
}

/* Connects. DISCONNECTED: nobody listens there; TIMEOUT; SYSTEM. */
static packbuf_status packbuf_i_address_connect(const packbuf_i_address *address, uint64_t deadline, int *fd,
                                                packbuf_error *error) {
  const int made = socket(address->as.any.sa_family, SOCK_STREAM, 0);
  int code = 0;
  socklen_t size = sizeof code;
  if (made < 0) return packbuf_i_system_fail(error, "no socket", errno);
  if (packbuf_i_address_loopback(address)) packbuf_i_socket_near(made);
  if (!packbuf_i_socket_prepare(made)) code = errno;
  else if (connect(made, &address->as.any, address->size) != 0) code = errno;
  while (code == EINPROGRESS || code == EINTR) {
    struct pollfd ready;
    const uint64_t now = packbuf_now();
    const uint64_t left = deadline > now ? (deadline - now + 999999u) / 1000000u : 0;
    int count;
    ready.fd = made;
    ready.events = POLLOUT;
    count = left ? poll(&ready, 1, left < 1000 ? (int)left : 1000) : 0;
    if (count < 0 && errno != EINTR) code = errno;
    else if (count > 0 && getsockopt(made, SOL_SOCKET, SO_ERROR, &code, &size) != 0) code = errno;
    else if (!left) code = ETIMEDOUT;
  }
  *fd = made;
  if (!code) return PACKBUF_OK;
  (void)close(made);
  *fd = -1;
  if (code == ETIMEDOUT) /* only with the codes that say so is the offset an errno */
    return packbuf_i_fail(error, PACKBUF_TIMEOUT, "the server cannot be connected to", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  return packbuf_i_fail(error, PACKBUF_DISCONNECTED, "the server cannot be connected to", (uint64_t)code,
                        PACKBUF_NOWHERE);
}

/* ---- looking before sleeping ---- */

enum { PACKBUF_I_CREDIT = 16, PACKBUF_I_PROBES = 32 };
#define PACKBUF_I_LOOK_NS 50000u

/* To wake a thread that sleeps takes 5 to 50 us of the one that wakes and of the one that is woken, as long as half a
 * MiB takes on loopback. So whoever waits looks again and again for a while before it sleeps, where that has paid of
 * late: each time that it did earns one more, each that it did not costs two. Where both ends share a core, or others
 * want it, it does not pay, and is tried once in 32 waits. (It does not yield meanwhile: whoever then runs may keep the
 * core for milliseconds.) */
typedef struct packbuf_i_patience {
  uint64_t until; /* looks until then; 0: sleeps */
  unsigned able, credit, waits, looks;
} packbuf_i_patience;

static void packbuf_i_patience_open(packbuf_i_patience *patience) {
  patience->able = sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

static void packbuf_i_patience_start(packbuf_i_patience *patience) {
  patience->looks = 0;
  patience->until = 0;
  if (patience->able && (patience->credit || ++patience->waits % PACKBUF_I_PROBES == 0))
    patience->until = packbuf_now() + PACKBUF_I_LOOK_NS;
}

/* It has looked, or slept, and seen so many. Whether to do so again. */
static int packbuf_i_patience_more(packbuf_i_patience *patience, int count) {
  if (!patience->until) return 0;
  if (count) { /* at the first look: it would not have slept either */
    if (patience->looks && patience->credit < PACKBUF_I_CREDIT) patience->credit++;
    return 0;
  }
  patience->looks++;
  if (packbuf_now() < patience->until) return 1;
  patience->credit -= patience->credit < 2 ? patience->credit : 2;
  patience->until = 0;
  return 1;
}
