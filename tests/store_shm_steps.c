/* Kills a process after its n-th instruction, for many n, while it works in a shm store: by ptrace, one instruction at
 * a time. At once nothing is lost; collected, keys are old or new and whole, and all is accounted for. Or stops it
 * there: others do not wait for it and get what they want of what it does not hold; then it goes on and is right, or,
 * every other time, is killed then.
 *     store_shm_steps [EVERY [SCENARIO [kill|stop]]]   every EVERY-th instruction (97) from a random start; 1: all
 *                                                      (hours; of opening and of getting every 32nd and 8th) */
#include "shm_helper.h"
#include <sys/ptrace.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SLOW 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#endif
#ifdef SLOW
enum { USUALLY = 70001 }; /* many more instructions, for which other programs look */
#else
enum { USUALLY = 97 * TAP_STEP };
#endif

typedef struct scenario {
  const char *name;
  void (*prepare)(handle *h);
  void (*work)(handle *h);  /* in the process that is killed */
  int opens;                /* it opens the store itself */
  long times;               /* the steps between two points are so many times longer: where there are many */
  int (*right)(handle *h);  /* the store afterwards, collected */
  int (*others)(handle *h); /* what others do while it is stopped: 1: as they should; NULL: it is not stopped */
  int (*ended)(handle *h);  /* the store after it went on and ended */
} scenario;

/* 0: missing; else the seed of what is there, or UINT64_MAX where that is torn. */
static uint64_t seed_at(handle *h, const char *key) {
  packbuf_item item = get(h, key, 0);
  uint64_t seed;
  if (item.status != PACKBUF_OK) return 0;
  seed = content_seed(item.lease.data);
  if (!content_is(item.lease.data, item.lease.size, seed)) seed = UINT64_MAX;
  DRIVER.let_go(h->state, item.lease.token);
  return seed;
}

/* K takes many units, so that many instructions free them. */
static void two_keys(handle *h) {
  (void)put(h, "K", 50000, 1);
  (void)put(h, "M", 100, 1);
}

/* Prepared once: what the process puts. */
static uint8_t new_bytes[1600]; /* longer ones are copied by one instruction, of which each byte would count as one */

static void put_get_remove(handle *h) {
  packbuf_item item = item_of("K");
  item.from = new_bytes;
  item.size = sizeof new_bytes;
  handle_run(h, PACKBUF_PUT, &item, 1, PACKBUF_NO_WAIT);
  item = get(h, "K", 0);
  DRIVER.let_go(h->state, item.lease.token);
  (void)removed(h, "M", PACKBUF_NO_WAIT);
}

static int old_or_new(handle *h) {
  const uint64_t k = seed_at(h, "K"), m = seed_at(h, "M");
  return (k == 1 || k == 2) && m <= 1 && audit_good(h, m ? 2 : 1);
}

static void slice_put(handle *h) {
  uint64_t sizes[2] = {200000, 5000}, tokens[2];
  void *data[2];
  packbuf_slice slice;
  packbuf_item item = item_of("K");
  if (DRIVER.reserve(h->state, sizes, 2, 0, data, tokens, NULL) != PACKBUF_OK) return;
  memcpy(data[0], new_bytes, sizeof new_bytes);
  memset(&slice, 0, sizeof slice);
  slice.holder = &shm_holder;
  slice.data = data[0];
  slice.size = sizes[0];
  slice.token = tokens[0];
  item.slice = &slice;
  item.from = data[0];
  item.size = sizeof new_bytes;
  handle_run(h, PACKBUF_PUT, &item, 1, PACKBUF_NO_WAIT);
  DRIVER.give_back(h->state, tokens[1]);
}

/* All memory in objects that may go, but for K. */
static void full_of_evictable(handle *h) {
  char key[16];
  two_keys(h);
  for (int i = 0; i < 60; i++) {
    snprintf(key, sizeof key, "e%d", i);
    (void)put_with(h, key, 32768, 1, PACKBUF_PUT_EVICTABLE, 0, PACKBUF_NO_WAIT);
  }
}

/* All memory in objects, but for what two that ended left to their slots. */
static void all_kept(handle *h) {
  char key[16];
  two_keys(h);
  for (int i = 0; i < 60; i++) {
    snprintf(key, sizeof key, "e%d", i);
    (void)put(h, key, 32768, 1);
  }
  (void)put(h, "X", 9 * 4096, 1);
  (void)put(h, "Y", 9 * 4096, 1);
  (void)removed(h, "X", PACKBUF_NO_WAIT);
  (void)removed(h, "Y", PACKBUF_NO_WAIT);
}

/* The first takes the units of a slot that kept them, the third has those that the first one's slot kept. */
static void put_again(handle *h) {
  packbuf_item item = item_of("K");
  item.from = new_bytes;
  item.size = sizeof new_bytes;
  for (int i = 0; i < 3; i++) handle_run(h, PACKBUF_PUT, &item, 1, PACKBUF_NO_WAIT);
}

static int old_or_new_among_others(handle *h) {
  const uint64_t k = seed_at(h, "K"), m = seed_at(h, "M");
  char key[16];
  uint64_t live = 1 + (m != 0);
  int good = (k == 1 || k == 2) && m <= 1;
  for (int i = 0; i < 60; i++) {
    uint64_t seed;
    snprintf(key, sizeof key, "e%d", i);
    seed = seed_at(h, key);
    good = good && seed <= 1;
    live += seed != 0;
  }
  return good && audit_good(h, live);
}

/* A dead process left a slot that it had claimed and an object that it had leased, and that was removed since. */
static void somebody_died(handle *h) {
  int status;
  pid_t child;
  two_keys(h);
  (void)put(h, "L", 100, 1);
  child = fork();
  if (child == 0) {
    handle own;
    uint64_t size = 30000, token;
    void *data;
    if (handle_open(&own, "") == PACKBUF_OK) {
      (void)DRIVER.reserve(own.state, &size, 1, 0, &data, &token, NULL);
      (void)get(&own, "L", 0);
    }
    _exit(0); /* as good as killed */
  }
  (void)waitpid(child, &status, 0);
  (void)put(h, "L", 200, 1);
}

static void clears_up(handle *h) { (void)DRIVER.collect(h->state, 0, NULL, NULL); }

static int cleared_up(handle *h) {
  return seed_at(h, "K") == 1 && seed_at(h, "L") == 1 && seed_at(h, "M") == 1 && audit_good(h, 3);
}

static void opens_and_closes(handle *h) {
  if (handle_open(h, "") != PACKBUF_OK) return;
  handle_close(h);
}

/* ---- what others do meanwhile: all of it without waiting ---- */

static int others_work(handle *h) {
  const uint64_t k = seed_at(h, "K");
  packbuf_status status;
  int good =
      (k == 1 || k == 2) && put(h, "K", 3000, 4).status == PACKBUF_OK && put(h, "O", 700, 3).status == PACKBUF_OK;
  good = good && seed_at(h, "K") == 4 && seed_at(h, "O") == 3;
  status = removed(h, "M", PACKBUF_NO_WAIT);
  good = good && (status == PACKBUF_OK || status == PACKBUF_NOT_FOUND || status == PACKBUF_LEASED);
  good = good && seed_at(h, "M") == 0 && removed(h, "O", PACKBUF_NO_WAIT) == PACKBUF_OK;
  return DRIVER.collect(h->state, 0, NULL, NULL) == PACKBUF_OK && good;
}

static int new_or_newer(handle *h) {
  const uint64_t k = seed_at(h, "K");
  return (k == 2 || k == 4) && !seed_at(h, "M") && audit_good(h, 1);
}

static int new_or_newer_among_others(handle *h) {
  const uint64_t k = seed_at(h, "K"), live = audit_of(h).live;
  return (k == 2 || k == 4) && !seed_at(h, "M") && live > 1 && audit_good(h, live);
}

/* The dead one's things are taken back by both at once. */
static int others_clear_up(handle *h) {
  const int good = DRIVER.collect(h->state, 0, NULL, NULL) == PACKBUF_OK && put(h, "O", 700, 3).status == PACKBUF_OK &&
                   seed_at(h, "O") == 3 && seed_at(h, "K") == 1 && seed_at(h, "L") == 1;
  return removed(h, "O", PACKBUF_NO_WAIT) == PACKBUF_OK && good;
}

/* ---- torn reads: a reader is stopped anywhere in a get while its key is removed and its memory wanted ---- */

static void short_key(handle *h) { (void)put(h, "K", sizeof new_bytes, 1); }

/* Copied, and in place. */
static void reads(handle *h) {
  static uint8_t into[sizeof new_bytes];
  packbuf_item item = item_of("K");
  item.into = into;
  item.capacity = sizeof into;
  handle_run(h, PACKBUF_GET, &item, 1, PACKBUF_NO_WAIT);
  if (item.status == PACKBUF_OK ? !content_is(into, sizeof into, 1) : item.status != PACKBUF_NOT_FOUND) _exit(1);
  item = get(h, "K", 0);
  if (item.status == PACKBUF_NOT_FOUND) return;
  if (item.status != PACKBUF_OK || !content_is(item.lease.data, item.lease.size, 1)) _exit(1);
  DRIVER.let_go(h->state, item.lease.token);
}

static int one_there(handle *h) { return seed_at(h, "K") == 1 && audit_good(h, 1); }

/* Removes the key and fills all that there is with something else. */
static int others_fill(handle *h) {
  const packbuf_status status = removed(h, "K", PACKBUF_NO_WAIT);
  packbuf_status full = PACKBUF_OK;
  int objects = 0, most;
  for (char key[16]; full == PACKBUF_OK && objects < 100; objects++) {
    snprintf(key, sizeof key, "f%d", objects);
    full = put(h, key, 32768, 9).status;
  }
  most = status == PACKBUF_LEASED ? 63 : 64; /* of 8 units each, of 512 in all */
  return (status == PACKBUF_OK || status == PACKBUF_LEASED) && full == PACKBUF_FULL && objects - 1 <= most &&
         objects - 1 >= 63 && seed_at(h, "K") == 0;
}

static int filled(handle *h) {
  return seed_at(h, "f0") == 9 && audit_good(h, audit_of(h).live) && audit_of(h).live >= 63;
}

static const scenario scenarios[] = {
    {"put, get, remove", two_keys, put_get_remove, 0, 1, old_or_new, others_work, new_or_newer},
    {"reserve, put by slice, give back", two_keys, slice_put, 0, 1, old_or_new, others_work, new_or_newer},
    {"put that evicts", full_of_evictable, put_get_remove, 0, 4, old_or_new_among_others, others_work,
     new_or_newer_among_others},
    {"put where all free units are kept", all_kept, put_again, 0, 1, old_or_new_among_others, others_work,
     new_or_newer_among_others},
    {"collect after another's death", somebody_died, clears_up, 0, 2, cleared_up, others_clear_up, cleared_up},
    {"open, as a dead one's successor, and close", somebody_died, opens_and_closes, 1, 32, cleared_up, others_clear_up,
     cleared_up},
    {"get, copied and in place", short_key, reads, 0, 8, one_there, others_fill, filled}};

/* Between any two instructions, before anybody collects: whose each thing is can be told. */
static int nothing_lost(handle *h) {
  packbuf_audit a;
  memset(&a, 0, sizeof a);
  return DRIVER.keeper->audit(h->state, &a, NULL) == PACKBUF_OK && !a.lost_bytes && !a.shared_bytes && !a.lost_slots &&
         !a.lost_cells && !a.lost_pins && !a.hidden;
}

/* It is let go, and ends as if nothing had been. */
static int goes_on(pid_t child) {
  int status = 0;
  return ptrace(PTRACE_DETACH, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

enum { KILLED, STOPPED, STOPPED_AND_KILLED };

/* Starts the process and lets it go `steps` instructions far; then it is killed, or stopped while others work, and goes
 * on or is killed then. 1: it ended before; -1: ptrace failed; -2: something was lost, or others or it did wrong. */
static int stepped(const scenario *s, long steps, handle *h, int how) {
  int status = 0, ended = 0, good;
  const pid_t child = fork();
  if (child == 0) {
    handle own;
    memset(&own, 0, sizeof own);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(9);
    if (!s->opens && handle_open(&own, "") != PACKBUF_OK) _exit(8);
    (void)raise(SIGSTOP);
    s->work(&own);
    _exit(0);
  }
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return -1;
  for (long i = 0; i < steps && !ended; i++) {
    if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child) ended = -1;
    else if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? 1 : -1;
    else if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) ended = -1;
  }
  good = nothing_lost(h);
  if (how != KILLED && !ended) good = s->others(h) && good;
  if (how == STOPPED && !ended) return goes_on(child) && good ? 0 : -2;
  (void)kill(child, SIGKILL);
  (void)waitpid(child, &status, 0);
  return !ended && !good ? -2 : ended;
}

/* Everything goes, so that each point begins alike. */
static void emptied(handle *h) {
  packbuf_listed listed;
  uint64_t cursor = 0, count = 0;
  do {
    if (DRIVER.list(h->state, NULL, &cursor, &listed, 1, &count, 0, NULL) != PACKBUF_OK) return;
    if (count) (void)removed(h, listed.key, PACKBUF_NO_WAIT);
  } while (cursor);
}

static void run(const scenario *s, long step, int stops) {
  handle h;
  const long every = step > 1 || s->times >= 8 ? step * s->times : 1;
  long points = 0, wrong = 0, steps = (long)(packbuf_now() % (uint64_t)every);
  const long start = steps;
  int end = 0;
  shm_fresh();
  if (!tap_ok(handle_open(&h, "?size=2m&objects=64&sessions=4") == PACKBUF_OK, "%s: a store", s->name)) return;
  for (; (end == 0 || end == -2) && wrong < 5; steps += every) {
    s->prepare(&h);
    end = stepped(s, steps, &h, !stops ? KILLED : points % 2 ? STOPPED_AND_KILLED : STOPPED);
    points++;
    if (DRIVER.collect(h.state, 0, NULL, NULL) != PACKBUF_OK || end == -2 ||
        !(stops && end == 0 ? s->ended(&h) : s->right(&h))) {
      wrong++;
      tap_note("wrong after %ld instructions%s", steps, end == -2 ? ", at once, meanwhile, or when it went on" : "");
    }
    emptied(&h);
    if (!collected(&h, 0)) wrong++;
  }
  tap_ok(end == 1 && wrong == 0, "%s: %s at %ld points of %ld instructions, from %ld on: wrong %ld%s", s->name,
         stops ? "stopped" : "killed", points, steps - every, start, wrong,
         end == -1 ? "; ptrace is not to be had" : "");
  handle_close(&h);
}

int main(int argc, char **argv) {
  const long every = argc > 1 && atol(argv[1]) > 0 ? atol(argv[1]) : USUALLY;
  const int only = argc > 2 ? atoi(argv[2]) : -1, all = argc > 3 ? 0 : 1;
  if (!getenv("LD_BIND_NOW")) { /* functions are not to be looked up while they are stepped through */
    (void)setenv("LD_BIND_NOW", "1", 1);
    (void)execv("/proc/self/exe", argv);
  }
  atexit(shm_away);
  content_fill(new_bytes, sizeof new_bytes, 2);
  for (int i = 0; i < (int)(sizeof scenarios / sizeof scenarios[0]); i++) {
    if (only >= 0 && only != i) continue;
    if (all || strcmp(argv[3], "kill") == 0) run(&scenarios[i], every, 0);
    if (all || strcmp(argv[3], "stop") == 0) run(&scenarios[i], every > 1 ? every * 3 : every, 1);
  }
  return tap_plan_done();
}
