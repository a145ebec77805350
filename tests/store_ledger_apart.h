/* A consumer in a process of its own (cases L25 to L29): store_ledger again, which does what it is told through a pipe.
 * Test-only; include into store_ledger.c, after its helpers. */
#ifndef STORE_LEDGER_APART_H
#define STORE_LEDGER_APART_H

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { APART_GET = 1, APART_HOLDS, APART_RELEASE };

typedef struct apart_order {
  int what;
  unsigned slot; /* of an object that it keeps */
  int64_t seed;
  packbuf_ref ref;
} apart_order;

typedef struct apart_answer {
  packbuf_status status;
  int good, freed; /* what was got, or is held, is the seed's */
} apart_answer;

typedef struct apart {
  pid_t pid;
  int pipe;
} apart;

static int apart_bytes(int fd, void *data, size_t size, int sends) {
  uint8_t *at = (uint8_t *)data;
  while (size) {
    const ssize_t some = sends ? send(fd, at, size, MSG_NOSIGNAL) : recv(fd, at, size, 0);
    if (some <= 0) return 0;
    at += some;
    size -= (size_t)some;
  }
  return 1;
}

/* The consumer: store_ledger --consumer URI PIPE. It ends when the pipe does. */
static int apart_main(const char *uri, int pipe_end) {
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_object objects[2];
  packbuf_ledger *own = NULL;
  apart_order order;
  apart_answer answer;
  memset(objects, 0, sizeof objects);
  memset(&answer, 0, sizeof answer);
  options.pool_size = (uint64_t)16 << 20;
  answer.status = packbuf_store_open(uri, &options, &store, &error);
  if (!answer.status) answer.status = packbuf_ledger_open(store, NULL, &own, &error);
  if (!apart_bytes(pipe_end, &answer, sizeof answer, 1) || answer.status) return 1;
  while (apart_bytes(pipe_end, &order, sizeof order, 0)) {
    packbuf_object *object = &objects[order.slot];
    memset(&answer, 0, sizeof answer);
    if (order.what == APART_GET) answer.status = packbuf_ledger_get(own, &order.ref, &getting, object, &error);
    if (order.what == APART_RELEASE) answer.status = packbuf_ledger_release(own, object, &answer.freed, &error);
    else answer.good = object->inner && holds(object, order.seed);
    if (!apart_bytes(pipe_end, &answer, sizeof answer, 1)) return 1;
  }
  for (unsigned i = 0; i < 2; i++) packbuf_ledger_release(own, &objects[i], NULL, &error);
  return packbuf_ledger_close(own, &error) || packbuf_store_close(store, PACKBUF_FOREVER, &error);
}

static int apart_start(apart *consumer, const char *program) {
  apart_answer answer;
  char number[16];
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 0;
  snprintf(number, sizeof number, "%d", ends[1]);
  fflush(stdout);
  consumer->pid = fork();
  if (consumer->pid == 0) {
    (void)close(ends[0]);
    execl(program, program, "--consumer", info.uri, number, (char *)NULL);
    _exit(127);
  }
  (void)close(ends[1]);
  consumer->pipe = ends[0];
  return consumer->pid > 0 && apart_bytes(consumer->pipe, &answer, sizeof answer, 0) && is(answer.status, PACKBUF_OK);
}

/* 1: it ended as it should. */
static int apart_end(apart *consumer, int kills) {
  int status = -1;
  if (kills) (void)kill(consumer->pid, SIGKILL);
  (void)close(consumer->pipe);
  if (waitpid(consumer->pid, &status, 0) != consumer->pid) return 0;
  return kills ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static apart_answer apart_does(apart *consumer, int what, unsigned slot, const packbuf_ref *ref, int64_t seed) {
  apart_answer answer;
  apart_order order;
  memset(&order, 0, sizeof order);
  memset(&answer, 0, sizeof answer);
  answer.status = PACKBUF_SYSTEM;
  order.what = what;
  order.slot = slot;
  order.seed = seed;
  if (ref) order.ref = *ref;
  if (apart_bytes(consumer->pipe, &order, sizeof order, 1))
    (void)apart_bytes(consumer->pipe, &answer, sizeof answer, 0);
  return answer;
}

static int apart_gets(apart *consumer, unsigned slot, const packbuf_ref *ref, packbuf_status want, int64_t seed) {
  const apart_answer answer = apart_does(consumer, APART_GET, slot, ref, seed);
  return is(answer.status, want) && answer.good == (want == PACKBUF_OK);
}

/* Bytes of the store in use, once what the dead held is taken back. */
static uint64_t bytes_used(void) {
  packbuf_store_info now;
  memset(&now, 0, sizeof now);
  packbuf_store_collect(store, PACKBUF_FOREVER, NULL, &error);
  packbuf_store_describe(store, &now, PACKBUF_FOREVER, &error);
  return now.used;
}

static int gets_back_to(uint64_t used) { /* a server takes a moment to see that a client is gone */
  for (int i = 0; i < 200 && bytes_used() != used; i++) pause_ms(10);
  return bytes_used() == used;
}

static void apart_consumes(apart *consumer) {
  const uint64_t used = bytes_used();
  packbuf_ref g1, g2;
  packbuf_object object;
  apart_answer answer;
  uint64_t gone = 9;
  is(put("p", 1, &g1), PACKBUF_OK);
  tap_ok(apart_gets(consumer, 0, &g1, PACKBUF_OK, 1), "%s: L25: another process gets it bit for bit", where);
  tap_ok(is(put("p", 2, &g2), PACKBUF_OK) && apart_gets(consumer, 1, &g1, PACKBUF_STALE, 0),
         "%s: L26: a stale generation, in another process", where);
  tap_ok(apart_does(consumer, APART_HOLDS, 0, NULL, 1).good, "%s: what it holds is the old one still", where);
  answer = apart_does(consumer, APART_RELEASE, 0, NULL, 0);
  tap_ok(is(answer.status, PACKBUF_OK) && in_store("p", g2.generation) && state_of(ledger).batches == 1,
         "%s: L31: its release of the old one, which it takes for the newest, keeps the new one", where);
  tap_ok(apart_gets(consumer, 0, &g2, PACKBUF_OK, 2), "%s: it gets the newer one", where);
  answer = apart_does(consumer, APART_RELEASE, 0, NULL, 0);
  tap_ok(is(answer.status, PACKBUF_OK) && answer.freed && !in_store("p", 0) && gets_back_to(used),
         "%s: L28: its release frees the producer's memory", where);
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && state_of(ledger).batches == 0 && gone == 0 &&
             gets(ledger, &g2, &object, PACKBUF_NOT_FOUND, 0),
         "%s: L28: and the producer learns of it", where);
}

static void apart_aborted(apart *consumer) {
  const uint64_t used = bytes_used();
  packbuf_ref ref;
  uint64_t gone = 9;
  is(put("q", 3, &ref), PACKBUF_OK);
  tap_ok(
      is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK) && apart_gets(consumer, 0, &ref, PACKBUF_NOT_FOUND, 0),
      "%s: L27: an abort stops another process", where);
  is(put("q", 4, &ref), PACKBUF_OK);
  tap_ok(apart_gets(consumer, 0, &ref, PACKBUF_OK, 4) && is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK) &&
             apart_gets(consumer, 1, &ref, PACKBUF_NOT_FOUND, 0) && apart_does(consumer, APART_HOLDS, 0, NULL, 4).good,
         "%s: L29: aborted under another process's lease: no new get, and the lease is right", where);
  tap_ok(state_of(ledger).pending == (can(PACKBUF_CAN_IN_PLACE) ? 1u : 0u), "%s: L29: its memory comes later, in place",
         where);
  apart_does(consumer, APART_RELEASE, 0, NULL, 0);
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && state_of(ledger).pending == 0 && gets_back_to(used),
         "%s: L29: with its release", where);
}

/* A consumer that is killed holds nothing. */
static void apart_killed(apart *consumer) {
  const uint64_t used = bytes_used();
  packbuf_ref ref;
  uint64_t gone = 9;
  is(put("k", 5, &ref), PACKBUF_OK);
  tap_ok(apart_gets(consumer, 0, &ref, PACKBUF_OK, 5) && is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK) &&
             apart_end(consumer, 1),
         "%s: a consumer killed under its lease", where);
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && state_of(ledger).pending == 0 && gets_back_to(used),
         "%s: what it held comes back", where);
}

static void two_processes(const char *program) {
  apart consumer;
  begin(0, 0);
  if (tap_ok(apart_start(&consumer, program), "%s: a consumer of its own", where)) {
    apart_consumes(&consumer);
    apart_aborted(&consumer);
    tap_ok(apart_end(&consumer, 0), "%s: it ends", where);
    if (tap_ok(apart_start(&consumer, program), "%s: another one", where)) apart_killed(&consumer);
  }
  end("two processes", 0);
}

#endif
