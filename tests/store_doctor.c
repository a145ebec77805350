/* tests/store_doctor.c: what the doctor finds: each finding whole, the rooms that a store needs looked at, a server
 * that is not there called a problem, nothing opened or made. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#include "../transport/packbuf_transport.h"
#include "tap.h"
#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct findings {
  unsigned count, problems, broken;
  int looked; /* at `wanted` */
  const char *wanted;
} findings;

static void take(void *context, packbuf_severity severity, const char *what, const char *found, const char *advice) {
  findings *all = (findings *)context;
  all->count++;
  all->problems += severity == PACKBUF_PROBLEM;
  all->broken += !what || !what[0] || !found || !found[0] || (severity != PACKBUF_FINE && (!advice || !advice[0]));
  all->looked |= what && strstr(what, all->wanted) != NULL;
  tap_note("%u %s: %s%s%s", (unsigned)severity, what, found, advice && advice[0] ? ": " : "", advice ? advice : "");
}

/* A port of loopback on which nobody listens. */
static unsigned closed_port(void) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || getsockname(fd, (struct sockaddr *)&address, &size))
    return 0;
  (void)close(fd);
  return ntohs(address.sin_port);
}

static findings look(const char *uri, const char *wanted, packbuf_status expected) {
  findings all;
  packbuf_error error;
  packbuf_status status;
  memset(&all, 0, sizeof all);
  all.wanted = wanted;
  status = packbuf_doctor(uri, take, &all, packbuf_deadline_in(3000), &error);
  tap_ok(status == expected && !all.broken, "%s: %u findings, %u problems", uri ? uri : "all", all.count, all.problems);
  return all;
}

int main(void) {
  char uri[64];
  findings all = look("shm:doctor-was-here", "/dev/shm", PACKBUF_OK);
  tap_ok(all.looked && access("/dev/shm/packbuf.doctor-was-here", F_OK) != 0,
         "shm: /dev/shm was looked at, and nothing made there");
  (void)snprintf(uri, sizeof uri, "tcp://127.0.0.1:%u", closed_port());
  all = look(uri, "", PACKBUF_OK);
  tap_ok(all.problems > 0, "a server that is not there is a problem");
  all = look("local:", "", PACKBUF_OK);
  tap_ok(all.problems == 0, "local: needs nothing");
  all = look(NULL, "/dev/shm", PACKBUF_OK);
  tap_ok(all.looked && all.count > 3, "all of it");
  (void)look("nonsense:", "", PACKBUF_INVALID_ARGUMENT);
  return tap_plan_done();
}
