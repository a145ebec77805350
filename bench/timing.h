/* bench/timing.h: clocks, medians, memory that is touched before it is timed, and operations that take turns in one or
 * more threads: time is the thread's CPU time, of the slowest thread.
 * May use: pthreads. Must not know: what is timed. */
#ifndef BENCH_TIMING_H
#define BENCH_TIMING_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BENCH_ROUNDS = 31, BENCH_OPERATIONS = 4, BENCH_THREADS = 2 }; /* at most */

static void *bench_must(void *memory) {
  if (memory) return memory;
  fprintf(stderr, "bench: out of memory\n");
  exit(1);
}

static double bench_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int bench_ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double bench_median(const double *times, unsigned count) {
  double sorted[BENCH_ROUNDS];
  memcpy(sorted, times, count * sizeof *times);
  qsort(sorted, count, sizeof *sorted, bench_ascending);
  return sorted[count / 2];
}

/* Memory in huge pages where there are such, written once. */
static uint8_t *bench_memory(size_t size) {
  const size_t whole = (size + ((size_t)2 << 20) - 1) & ~(((size_t)2 << 20) - 1);
  uint8_t *memory = (uint8_t *)bench_must(aligned_alloc((size_t)2 << 20, whole));
#ifdef MADV_HUGEPAGE
  madvise(memory, whole, MADV_HUGEPAGE);
#endif
  memset(memory, 0x5A, whole);
  return memory;
}

/* What is timed: `run` of each operation in turn, in each of `threads` threads with a context of its own. */
typedef struct bench_turns {
  unsigned threads, rounds, operations, repeat; /* repeat: runs between two looks at the clock */
  void (*run[BENCH_OPERATIONS])(void *context);
  void *context[BENCH_THREADS][BENCH_OPERATIONS];
  double seconds[BENCH_OPERATIONS][BENCH_ROUNDS]; /* of one run */
} bench_turns;

typedef struct bench_worker {
  bench_turns *turns;
  unsigned number;
  pthread_barrier_t *barrier;
  double seconds[BENCH_OPERATIONS][BENCH_ROUNDS];
} bench_worker;

static void *bench_work(void *context) {
  bench_worker *worker = (bench_worker *)context;
  const bench_turns *turns = worker->turns;
  for (unsigned round = 0; round <= turns->rounds; round++) { /* round 0 does not count */
    for (unsigned i = 0; i < turns->operations; i++) {
      double start;
      pthread_barrier_wait(worker->barrier);
      start = bench_now();
      for (unsigned k = 0; k < turns->repeat; k++) turns->run[i](turns->context[worker->number][i]);
      if (round) worker->seconds[i][round - 1] = (bench_now() - start) / turns->repeat;
    }
  }
  return NULL;
}

static void bench_take_turns(bench_turns *turns) {
  static bench_worker workers[BENCH_THREADS];
  pthread_t threads[BENCH_THREADS];
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, NULL, turns->threads);
  for (unsigned i = 0; i < turns->threads; i++) {
    workers[i].turns = turns;
    workers[i].number = i;
    workers[i].barrier = &barrier;
    if (i && pthread_create(&threads[i], NULL, bench_work, &workers[i])) {
      fprintf(stderr, "bench: no thread\n");
      exit(1);
    }
  }
  bench_work(&workers[0]);
  for (unsigned i = 1; i < turns->threads; i++) pthread_join(threads[i], NULL);
  pthread_barrier_destroy(&barrier);
  for (unsigned i = 0; i < turns->operations; i++) {
    for (unsigned round = 0; round < turns->rounds; round++) {
      double most = 0;
      for (unsigned t = 0; t < turns->threads; t++) {
        if (workers[t].seconds[i][round] > most) most = workers[t].seconds[i][round];
      }
      turns->seconds[i][round] = most;
    }
  }
}

/* Median seconds of an operation. */
static double bench_seconds(const bench_turns *turns, unsigned operation) {
  return bench_median(turns->seconds[operation], turns->rounds);
}

/* How many times as fast as operation `other` an operation is: the median over the rounds. */
static double bench_times(const bench_turns *turns, unsigned operation, unsigned other) {
  double ratio[BENCH_ROUNDS];
  for (unsigned i = 0; i < turns->rounds; i++) ratio[i] = turns->seconds[other][i] / turns->seconds[operation][i];
  return bench_median(ratio, turns->rounds);
}

#endif
