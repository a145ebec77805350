/* Many checks that count as one test, memory between two guard pages, and random numbers; for tests of kernels. Include
 * after a header that has defined _GNU_SOURCE. Must not know: packbuf. */
#ifndef FENCE_H
#define FENCE_H

#include "tap.h"
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- many checks, one test: the first failure is kept ---- */

static unsigned long checks, complaints;
static char complaint[400];
static const char *volatile doing = "start";

TAP_PRINTF(2, 3) static inline void complain(int line, const char *format, ...) {
  va_list args;
  int at;
  if (complaints++) return;
  at = snprintf(complaint, sizeof complaint, "line %d: ", line);
  va_start(args, format);
  vsnprintf(complaint + at, sizeof complaint - (size_t)at, format, args);
  va_end(args);
}

#define expect(condition, ...) (checks++, (condition) ? (void)0 : complain(__LINE__, __VA_ARGS__))

static inline void begin(const char *what) {
  doing = what;
  checks = complaints = 0;
  complaint[0] = 0;
}

/* One test: all that was expected since the last one, or since begin. */
static inline void verdict_on(const char *who, const char *what) {
  if (!tap_ok(complaints == 0 && checks > 0, "%s%s%s (%lu checks)", who, who[0] ? ": " : "", what, checks)) {
    tap_note("%lu failed, the first at %s", complaints, complaint);
    fprintf(stderr, "# %lu failed, the first at %s\n", complaints, complaint);
  }
  checks = complaints = 0;
}

/* For signal: a guard page was touched. Says what ran, then dies as usual. */
static inline void crashed(int number) {
  const char *what = doing;
  ssize_t ignored = write(2, "# crashed in: ", 14);
  ignored = write(2, what, strlen(what));
  ignored = write(2, "\n", 1);
  (void)ignored;
  signal(number, SIG_DFL);
}

/* ---- memory between two guard pages ---- */

typedef struct fence {
  uint8_t *start, *end; /* whole pages; start[-1] and end[0] are out of bounds */
} fence;

/* Room for at least `size` bytes. */
static inline fence fence_of(size_t size) {
  const size_t page_size = (size_t)sysconf(_SC_PAGESIZE), inside = (size + page_size - 1) / page_size * page_size;
  fence f;
  uint8_t *all =
      (uint8_t *)mmap(NULL, inside + 2 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == (uint8_t *)MAP_FAILED || mprotect(all, page_size, PROT_NONE) ||
      mprotect(all + page_size + inside, page_size, PROT_NONE)) {
    printf("Bail out! mmap\n");
    exit(1);
  }
  f.start = all + page_size;
  f.end = f.start + inside;
  return f;
}

/* ---- random numbers ---- */

static uint64_t seed = 88172645463325252u;

static inline uint64_t random64(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed * 0x2545F4914F6CDD1Du;
}

#endif
