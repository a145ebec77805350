/* transport/system.c: what is asked of the system: the clock, locks that wait to a deadline, memory maps, random bytes;
 * and the words that all rooms of the transport share: atomic words, heap, errors, who takes slices and leases back.
 * May use: base, status, arena (allocators) of the core. Must not know: any other room of the transport. */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

/* ---- atomic words, all sequentially consistent ---- */

#define PACKBUF_I_LOAD(word) __atomic_load_n(word, __ATOMIC_SEQ_CST)
#define PACKBUF_I_STORE(word, value) __atomic_store_n(word, value, __ATOMIC_SEQ_CST)
#define PACKBUF_I_SWAP(word, value) __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST)
#define PACKBUF_I_ADD(word, value) __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST)
#define PACKBUF_I_SUBTRACT(word, value) __atomic_fetch_sub(word, value, __ATOMIC_SEQ_CST)
#define PACKBUF_I_OR(word, value) __atomic_fetch_or(word, value, __ATOMIC_SEQ_CST)
#define PACKBUF_I_AND(word, value) __atomic_fetch_and(word, value, __ATOMIC_SEQ_CST)
/* 1: *word was *expected and is `value` now; 0: *expected is what it was. */
#define PACKBUF_I_EXCHANGE(word, expected, value) \
  __atomic_compare_exchange_n(word, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

/* ---- who takes slices and leases back ---- */

/* The first member of what hands them out. NULL: it hands out none of these. */
typedef struct packbuf_i_holder {
  void (*slice_back)(struct packbuf_i_holder *holder, const packbuf_slice *slice);
  void (*lease_back)(struct packbuf_i_holder *holder, const packbuf_lease *lease);
} packbuf_i_holder;

PACKBUF_API void packbuf_slice_release(packbuf_slice *slice) {
  const packbuf_slice given = *slice;
  memset(slice, 0, sizeof *slice);
  if (given.holder) given.holder->slice_back(given.holder, &given);
}

PACKBUF_API void packbuf_lease_release(packbuf_lease *lease) {
  const packbuf_lease given = *lease;
  memset(lease, 0, sizeof *lease);
  if (given.holder) given.holder->lease_back(given.holder, &given);
}

/* ---- errors ---- */

/* An error of one item: its key, cut at the front, and its index. offset: an address, or errno; PACKBUF_NOWHERE. */
static packbuf_status packbuf_i_item_fail(packbuf_error *error, packbuf_status code, const char *message,
                                          const char *key, uint64_t index, uint64_t offset) {
  packbuf_i_fail(error, code, message, offset, index);
  if (key) packbuf_i_set_path(error, key, strlen(key));
  return code;
}

/* An error without an item. */
static packbuf_status packbuf_i_call_fail(packbuf_error *error, packbuf_status code, const char *message) {
  return packbuf_i_fail(error, code, message, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

/* What the system said, as the offset. */
static packbuf_status packbuf_i_system_fail(packbuf_error *error, const char *message, int code) {
  return packbuf_i_fail(error, PACKBUF_SYSTEM, message, (uint64_t)code, PACKBUF_NOWHERE);
}

/* ---- heap ---- */

/* realloc and free. */
static const packbuf_allocator packbuf_i_plain_heap = {NULL, NULL};

/* As packbuf_allocator.resize. allocator->resize NULL: realloc and free. */
static void *packbuf_i_heap_raw(const packbuf_allocator *allocator, void *memory, size_t old_size, size_t new_size) {
  if (!memory && !new_size) return NULL;
  if (allocator->resize) return allocator->resize(allocator->context, memory, old_size, new_size);
  if (new_size) return realloc(memory, new_size);
  free(memory);
  return NULL;
}

/* The same; what is new of it is zeroed. */
static void *packbuf_i_heap(const packbuf_allocator *allocator, void *memory, size_t old_size, size_t new_size) {
  void *const result = packbuf_i_heap_raw(allocator, memory, old_size, new_size);
  if (result && new_size > old_size) memset((uint8_t *)result + old_size, 0, new_size - old_size);
  return result;
}

/* ---- time ---- */

PACKBUF_API uint64_t packbuf_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* As packbuf_now, but up to some milliseconds behind: for ages that are told in milliseconds, where a look at the clock
 * would be much of the work. */
static uint64_t packbuf_i_now_about(void) {
#if defined(CLOCK_MONOTONIC_COARSE)
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC_COARSE, &now) == 0)
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
  return packbuf_now();
}

PACKBUF_API uint64_t packbuf_deadline_in(uint64_t milliseconds) {
  const uint64_t now = packbuf_now();
  if (milliseconds > (PACKBUF_FOREVER - 1 - now) / 1000000u) return PACKBUF_FOREVER - 1;
  return now + milliseconds * 1000000u;
}

/* Microseconds since 2020, of the clock on the wall; 0 before. Generations begin with them, so that they are larger
 * than any before, in whatever process or store. */
static uint64_t packbuf_i_wall_micros(void) {
  const time_t year_2020 = 1577836800;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec < year_2020 ? 0 : (uint64_t)(now.tv_sec - year_2020) * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* ---- locks and waiting ---- */

typedef struct packbuf_i_lock {
  pthread_mutex_t mutex;
} packbuf_i_lock;

typedef struct packbuf_i_signal {
  pthread_cond_t condition;
} packbuf_i_signal;

static int packbuf_i_lock_start(packbuf_i_lock *lock) { return pthread_mutex_init(&lock->mutex, NULL) == 0; }
static void packbuf_i_lock_end(packbuf_i_lock *lock) { (void)pthread_mutex_destroy(&lock->mutex); }
static void packbuf_i_locked(packbuf_i_lock *lock) { (void)pthread_mutex_lock(&lock->mutex); }
static void packbuf_i_unlocked(packbuf_i_lock *lock) { (void)pthread_mutex_unlock(&lock->mutex); }

static int packbuf_i_signal_start(packbuf_i_signal *signal) {
  pthread_condattr_t attributes;
  int ok = pthread_condattr_init(&attributes) == 0;
  if (!ok) return 0;
#if !defined(__APPLE__)
  ok = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0;
#endif
  ok = ok && pthread_cond_init(&signal->condition, &attributes) == 0;
  (void)pthread_condattr_destroy(&attributes);
  return ok;
}
static void packbuf_i_signal_end(packbuf_i_signal *signal) { (void)pthread_cond_destroy(&signal->condition); }
static void packbuf_i_signal_all(packbuf_i_signal *signal) { (void)pthread_cond_broadcast(&signal->condition); }

/* Waits with the lock held for a signal; may come back without one. 0: the deadline has passed (PACKBUF_NO_WAIT: at
 * once). */
static int packbuf_i_wait(packbuf_i_signal *signal, packbuf_i_lock *lock, uint64_t deadline) {
  struct timespec until;
  if (deadline == PACKBUF_NO_WAIT) return 0;
  if (deadline == PACKBUF_FOREVER) return pthread_cond_wait(&signal->condition, &lock->mutex) == 0;
#if defined(__APPLE__)
  {
    const uint64_t now = packbuf_now(), left = deadline > now ? deadline - now : 0;
    until.tv_sec = (time_t)(left / 1000000000u);
    until.tv_nsec = (long)(left % 1000000000u);
    return left && pthread_cond_timedwait_relative_np(&signal->condition, &lock->mutex, &until) == 0;
  }
#else
  until.tv_sec = (time_t)(deadline / 1000000000u);
  until.tv_nsec = (long)(deadline % 1000000000u);
  return pthread_cond_timedwait(&signal->condition, &lock->mutex, &until) == 0;
#endif
}

/* Sleeps to a deadline. */
static void packbuf_i_sleep_until(uint64_t deadline) {
  for (uint64_t now = packbuf_now(); now < deadline; now = packbuf_now()) {
    struct timespec some;
    const uint64_t left = deadline - now;
    some.tv_sec = (time_t)(left / 1000000000u);
    some.tv_nsec = (long)(left % 1000000000u);
    (void)nanosleep(&some, NULL);
  }
}

/* ---- fork ---- */

/* A word that is 1 here and 0 in a child after fork; NULL where that is not to be had. */
static uint32_t *packbuf_i_fork_word(void) {
#if defined(MADV_WIPEONFORK)
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return NULL;
  if (madvise(page, 4096, MADV_WIPEONFORK) == 0) {
    *(uint32_t *)page = 1;
    return (uint32_t *)page;
  }
  (void)munmap(page, 4096);
#endif
  return NULL;
}

static void packbuf_i_fork_word_end(uint32_t *word) {
  if (word) (void)munmap(word, 4096);
}

/* ---- random bytes ---- */

/* 0 without any. */
static int packbuf_i_random(void *bytes, size_t size) {
  uint8_t *to = (uint8_t *)bytes;
  while (size) {
    const size_t some = size < 256 ? size : 256;
    if (getentropy(to, some) != 0) return 0;
    to += some;
    size -= some;
  }
  return 1;
}
