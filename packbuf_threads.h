/* packbuf_threads.h: packing with many threads, on top of packbuf.h.
 *
 * Define PACKBUF_IMPLEMENTATION in exactly one file before including it (that brings out packbuf.h's implementation
 * too); include it plainly elsewhere. It uses pthreads, or C11 threads where PACKBUF_THREADS_C11 is 1 (the default
 * without pthreads; not in C++). Link with -pthread.
 *
 * packbuf_write_threads does it all in one call. Who packs batch after batch starts a packbuf_thread_pool once:
 * starting a thread costs some 20 to 50 us, as much as packing half a megabyte. The bytes are those of packbuf_write,
 * whatever the number of threads. Other schedulers need nothing from here: packbuf_write_split, packbuf_write_part and
 * packbuf_write_finish in packbuf.h are all there is to it. */
#include "packbuf.h" /* outside of the guard: a second inclusion may be the one that asks for the implementation */

#ifndef PACKBUF_THREADS_H
#define PACKBUF_THREADS_H

#ifndef PACKBUF_THREADS_C11
#if defined(__unix__) || defined(__APPLE__) || defined(__cplusplus)
#define PACKBUF_THREADS_C11 0
#else
#define PACKBUF_THREADS_C11 1
#endif
#endif

#if PACKBUF_THREADS_C11
#include <threads.h>
typedef thrd_t packbuf_i_thread;
typedef mtx_t packbuf_i_mutex;
typedef cnd_t packbuf_i_condition;
#else
#include <pthread.h>
typedef pthread_t packbuf_i_thread;
typedef pthread_mutex_t packbuf_i_mutex;
typedef pthread_cond_t packbuf_i_condition;
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define PACKBUF_MAX_THREADS 256u

/* Threads that wait for work. The fields are private; it must stay where it is from start to stop. One call at a time
 * on a pool. */
typedef struct packbuf_thread_pool {
  packbuf_i_mutex mutex;
  packbuf_i_condition work, done;
  packbuf_i_thread threads[PACKBUF_MAX_THREADS - 1];
  unsigned count; /* threads started */
  int stop;
  /* the batch at hand: parts before `next` are taken, `finished` of them are written */
  const packbuf_batch *batch;
  void *dst;
  uint64_t capacity;
  uint32_t parts, next, finished;
  uint32_t failed; /* the first part that failed; UINT32_MAX: none */
  packbuf_error error;
} packbuf_thread_pool;

/* Starts a pool of `threads` threads, 1 to PACKBUF_MAX_THREADS, the one that calls packbuf_thread_pool_write among
 * them. Where the system refuses threads there are fewer, without an error. Errors: INVALID_ARGUMENT; OUT_OF_MEMORY
 * when not even a mutex is to be had. */
PACKBUF_API packbuf_status packbuf_thread_pool_start(packbuf_thread_pool *pool, unsigned threads, packbuf_error *error);

/* packbuf_write by all threads of the pool; small batches are written by the calling thread alone. The batch belongs to
 * this call until it returns. The error is that of the first part that fails; devices' copy hooks are called from any
 * of the threads. The first time for a batch it takes a little memory (200 bytes a part) from the batch's arena. */
PACKBUF_API packbuf_status packbuf_thread_pool_write(packbuf_thread_pool *pool, packbuf_batch *batch, void *dst,
                                                     uint64_t capacity, uint64_t *size, packbuf_error *error);

/* Ends the threads. */
PACKBUF_API void packbuf_thread_pool_stop(packbuf_thread_pool *pool);

/* packbuf_write by `threads` threads that are started for this call, the calling one among them. Small batches start
 * none. */
PACKBUF_API packbuf_status packbuf_write_threads(packbuf_batch *batch, void *dst, uint64_t capacity, unsigned threads,
                                                 uint64_t *size, packbuf_error *error);

#ifdef __cplusplus
}
#endif
#endif /* PACKBUF_THREADS_H */

#if defined(PACKBUF_IMPLEMENTATION) && !defined(PACKBUF_I_THREADS_IMPLEMENTED)
#define PACKBUF_I_THREADS_IMPLEMENTED

#include <string.h>

#define PACKBUF_I_PART_LEAST ((uint64_t)256 << 10) /* bytes that pay for handing out a part */
#define PACKBUF_I_PARTS_EACH 8u /* parts a thread: the slow ones do fewer, as when others use the processor */
#define PACKBUF_I_START_LEAST ((uint64_t)1 << 20) /* bytes that pay for starting a thread */

#if PACKBUF_THREADS_C11

static int packbuf_i_mutex_init(packbuf_i_mutex *mutex) { return mtx_init(mutex, mtx_plain) == thrd_success; }
static void packbuf_i_mutex_lock(packbuf_i_mutex *mutex) { (void)mtx_lock(mutex); }
static void packbuf_i_mutex_unlock(packbuf_i_mutex *mutex) { (void)mtx_unlock(mutex); }
static void packbuf_i_mutex_destroy(packbuf_i_mutex *mutex) { mtx_destroy(mutex); }
static int packbuf_i_condition_init(packbuf_i_condition *condition) { return cnd_init(condition) == thrd_success; }
static void packbuf_i_condition_wait(packbuf_i_condition *condition, packbuf_i_mutex *mutex) {
  (void)cnd_wait(condition, mutex);
}
static void packbuf_i_condition_wake(packbuf_i_condition *condition) { (void)cnd_broadcast(condition); }
static void packbuf_i_condition_destroy(packbuf_i_condition *condition) { cnd_destroy(condition); }
#define PACKBUF_I_THREAD_RESULT int
#define PACKBUF_I_THREAD_END 0
static int packbuf_i_thread_start(packbuf_i_thread *thread, PACKBUF_I_THREAD_RESULT (*run)(void *), void *context) {
  return thrd_create(thread, run, context) == thrd_success;
}
static void packbuf_i_thread_join(packbuf_i_thread thread) { (void)thrd_join(thread, NULL); }

#else

static int packbuf_i_mutex_init(packbuf_i_mutex *mutex) { return pthread_mutex_init(mutex, NULL) == 0; }
static void packbuf_i_mutex_lock(packbuf_i_mutex *mutex) { (void)pthread_mutex_lock(mutex); }
static void packbuf_i_mutex_unlock(packbuf_i_mutex *mutex) { (void)pthread_mutex_unlock(mutex); }
static void packbuf_i_mutex_destroy(packbuf_i_mutex *mutex) { (void)pthread_mutex_destroy(mutex); }
static int packbuf_i_condition_init(packbuf_i_condition *condition) { return pthread_cond_init(condition, NULL) == 0; }
static void packbuf_i_condition_wait(packbuf_i_condition *condition, packbuf_i_mutex *mutex) {
  (void)pthread_cond_wait(condition, mutex);
}
static void packbuf_i_condition_wake(packbuf_i_condition *condition) { (void)pthread_cond_broadcast(condition); }
static void packbuf_i_condition_destroy(packbuf_i_condition *condition) { (void)pthread_cond_destroy(condition); }
#define PACKBUF_I_THREAD_RESULT void *
#define PACKBUF_I_THREAD_END NULL
static int packbuf_i_thread_start(packbuf_i_thread *thread, PACKBUF_I_THREAD_RESULT (*run)(void *), void *context) {
  return pthread_create(thread, NULL, run, context) == 0;
}
static void packbuf_i_thread_join(packbuf_i_thread thread) { (void)pthread_join(thread, NULL); }

#endif

/* Takes and writes parts until none is left. Called and left with the mutex held, which guards all of the pool. */
static void packbuf_i_pool_work(packbuf_thread_pool *pool) {
  while (pool->next < pool->parts) {
    const packbuf_batch *batch = pool->batch;
    void *dst = pool->dst;
    uint64_t capacity = pool->capacity;
    uint32_t part = pool->next++;
    packbuf_error error;
    packbuf_status status;
    packbuf_i_mutex_unlock(&pool->mutex);
    status = packbuf_write_part(batch, part, dst, capacity, &error);
    packbuf_i_mutex_lock(&pool->mutex);
    if (status) {
      pool->parts = pool->next; /* no more; those before it are taken, so that the first to fail is always found */
      if (part < pool->failed) pool->error = error;
      if (part < pool->failed) pool->failed = part;
    }
    if (++pool->finished == pool->parts) packbuf_i_condition_wake(&pool->done);
  }
}

static PACKBUF_I_THREAD_RESULT packbuf_i_pool_thread(void *context) {
  packbuf_thread_pool *pool = (packbuf_thread_pool *)context;
  packbuf_i_mutex_lock(&pool->mutex);
  while (!pool->stop) {
    packbuf_i_pool_work(pool);
    if (!pool->stop) packbuf_i_condition_wait(&pool->work, &pool->mutex);
  }
  packbuf_i_mutex_unlock(&pool->mutex);
  return PACKBUF_I_THREAD_END;
}

PACKBUF_API packbuf_status packbuf_thread_pool_start(packbuf_thread_pool *pool, unsigned threads,
                                                     packbuf_error *error) {
  int made = 0;
  if (!pool || threads == 0 || threads > PACKBUF_MAX_THREADS)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a pool has 1 to PACKBUF_MAX_THREADS threads",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  memset(pool, 0, sizeof *pool);
  if (packbuf_i_mutex_init(&pool->mutex)) made = 1;
  if (made == 1 && packbuf_i_condition_init(&pool->work)) made = 2;
  if (made == 2 && packbuf_i_condition_init(&pool->done)) made = 3;
  if (made < 3) {
    if (made > 1) packbuf_i_condition_destroy(&pool->work);
    if (made > 0) packbuf_i_mutex_destroy(&pool->mutex);
    return packbuf_i_fail(error, PACKBUF_OUT_OF_MEMORY, "the system has no mutex", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  }
  while (pool->count < threads - 1 && packbuf_i_thread_start(&pool->threads[pool->count], packbuf_i_pool_thread, pool))
    pool->count++;
  return PACKBUF_OK;
}

PACKBUF_API void packbuf_thread_pool_stop(packbuf_thread_pool *pool) {
  packbuf_i_mutex_lock(&pool->mutex);
  pool->stop = 1;
  packbuf_i_condition_wake(&pool->work);
  packbuf_i_mutex_unlock(&pool->mutex);
  while (pool->count) packbuf_i_thread_join(pool->threads[--pool->count]);
  packbuf_i_condition_destroy(&pool->done);
  packbuf_i_condition_destroy(&pool->work);
  packbuf_i_mutex_destroy(&pool->mutex);
}

PACKBUF_API packbuf_status packbuf_thread_pool_write(packbuf_thread_pool *pool, packbuf_batch *batch, void *dst,
                                                     uint64_t capacity, uint64_t *size, packbuf_error *error) {
  uint64_t needed, wanted;
  uint32_t parts = 0;
  packbuf_status status = packbuf_measure(batch, &needed, error);
  if (status) return status;
  wanted = (pool->count + 1) * PACKBUF_I_PARTS_EACH;
  if (wanted > needed / PACKBUF_I_PART_LEAST) wanted = needed / PACKBUF_I_PART_LEAST;
  if (!pool->count || wanted < 2 || capacity < needed || !dst) return packbuf_write(batch, dst, capacity, size, error);
  if (size) *size = needed;
  status = packbuf_write_split(batch, (uint32_t)wanted, &parts, error);
  if (status) return status;
  packbuf_i_mutex_lock(&pool->mutex);
  pool->batch = batch;
  pool->dst = dst;
  pool->capacity = capacity;
  pool->next = pool->finished = 0;
  pool->failed = UINT32_MAX;
  pool->parts = parts;
  packbuf_i_condition_wake(&pool->work);
  packbuf_i_pool_work(pool);
  while (pool->finished < pool->parts) packbuf_i_condition_wait(&pool->done, &pool->mutex);
  status = pool->failed == UINT32_MAX ? PACKBUF_OK : pool->error.code;
  if (status && error) *error = pool->error;
  packbuf_i_mutex_unlock(&pool->mutex);
  return status ? status : packbuf_write_finish(batch, dst, capacity, size, error);
}

PACKBUF_API packbuf_status packbuf_write_threads(packbuf_batch *batch, void *dst, uint64_t capacity, unsigned threads,
                                                 uint64_t *size, packbuf_error *error) {
  packbuf_thread_pool pool;
  uint64_t needed;
  packbuf_status status = packbuf_measure(batch, &needed, error);
  if (!status && (threads == 0 || threads > PACKBUF_MAX_THREADS))
    status = packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "threads must be 1 to PACKBUF_MAX_THREADS",
                            PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (status) return status;
  if (threads > 1 + needed / PACKBUF_I_START_LEAST) threads = (unsigned)(1 + needed / PACKBUF_I_START_LEAST);
  if (threads == 1) return packbuf_write(batch, dst, capacity, size, error);
  status = packbuf_thread_pool_start(&pool, threads, error);
  if (status) return status;
  status = packbuf_thread_pool_write(&pool, batch, dst, capacity, size, error);
  packbuf_thread_pool_stop(&pool);
  return status;
}

#endif /* PACKBUF_IMPLEMENTATION */
