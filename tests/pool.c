/* tests/pool.c: pools. Memory as asked for; slices that cost their pages; accounts and quotas; who waits for what, and
 * who gets it; leases and stores that keep a pool open; many threads. Also built with ThreadSanitizer.
 * May use: internals.h, tap.h. Must not know: how pages are found (tests/buddy.c), stores. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "tap.h"

enum { PAGE = 4096 };
#define MIB ((uint64_t)1 << 20)

static packbuf_error error;

static packbuf_pool *pool_of(uint64_t size) {
  packbuf_pool_options options;
  packbuf_pool *pool = NULL;
  memset(&options, 0, sizeof options);
  options.size = size;
  options.huge_pages = 1;
  if (packbuf_pool_open(&options, &pool, &error)) tap_note("no pool: %s", error.message);
  return pool;
}

static packbuf_i_pool_counts counts_of(packbuf_pool *pool) {
  packbuf_i_pool_counts counts;
  packbuf_i_pool_count(pool, &counts);
  return counts;
}

static packbuf_status taken(packbuf_pool *pool, uint32_t account, uint64_t size, packbuf_slice *slice) {
  return packbuf_pool_take(pool, account, &size, 1, PACKBUF_NO_WAIT, slice, &error);
}

/* The same where it must succeed. */
static void get(packbuf_pool *pool, uint32_t account, uint64_t size, packbuf_slice *slice) {
  if (taken(pool, account, size, slice)) tap_ok(0, "%u bytes for account %u", (unsigned)size, account);
}

/* How many pages of memory are there. */
static uint64_t resident(const void *memory, uint64_t size) {
  uint64_t there = 0;
  for (uint64_t at = 0; at < size; at += PAGE) {
    unsigned char one = 0;
    there += mincore((void *)(uintptr_t)((const char *)memory + at), PAGE, &one) == 0 && (one & 1);
  }
  return there;
}

/* ---- opening ---- */

typedef struct counted_heap {
  uint64_t calls, fails_at, out;
} counted_heap;

static void *counted_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  counted_heap *heap = (counted_heap *)context;
  void *result;
  if (!new_size) {
    heap->out -= old_size;
    free(memory);
    return NULL;
  }
  if (heap->calls++ == heap->fails_at) return NULL;
  result = realloc(memory, new_size);
  if (result) heap->out += new_size - old_size;
  return result;
}

static void test_allocator(void) {
  packbuf_pool_options options;
  packbuf_allocator allocator;
  counted_heap heap;
  packbuf_pool *pool;
  packbuf_status status;
  int good = 1;
  memset(&heap, 0, sizeof heap);
  memset(&options, 0, sizeof options);
  options.size = MIB;
  options.allocator = &allocator;
  allocator.resize = counted_resize;
  allocator.context = &heap;
  do {
    heap.calls = 0;
    status = packbuf_pool_open(&options, &pool, &error);
    good = good && (status ? status == PACKBUF_OUT_OF_MEMORY && !pool && !heap.out : heap.out > MIB / PAGE * 9);
    if (status) heap.fails_at++;
  } while (status && heap.fails_at < 10);
  tap_ok(good && heap.fails_at == 2, "a pool takes its tables of the caller's allocator, and says when it has none");
  tap_ok(!packbuf_pool_close(pool, &error) && !heap.out, "and gives them back, by their sizes");
}

static void test_options(void) {
  packbuf_pool_options options;
  packbuf_pool *pool = (packbuf_pool *)&options;
  packbuf_slice slice, second;
  const void *address;
  uint64_t size;
  char marked;
  memset(&options, 0, sizeof options);
  options.size = ((uint64_t)1 << 40) + 1;
  tap_ok(packbuf_pool_open(&options, &pool, &error) == PACKBUF_INVALID_ARGUMENT && !pool && error.message[0],
         "no pool of more than 1 TiB");
  options.size = PAGE;
  options.huge_pages = 3;
  tap_ok(packbuf_pool_open(&options, &pool, &error) == PACKBUF_INVALID_ARGUMENT, "no third sort of huge pages");
  options.huge_pages = 2;
  options.size = (uint64_t)1 << 39;
  tap_ok(packbuf_pool_open(&options, &pool, &error) == PACKBUF_UNAVAILABLE && !pool,
         "512 GiB of huge pages are not there");
  options.huge_pages = 0;
  options.size = 5 * MIB + 1;
  tap_ok(!packbuf_pool_open(&options, &pool, &error), "5 MiB and a byte");
  packbuf_i_pool_range(pool, &address, &size);
  tap_ok(size == 5 * MIB + PAGE && (uintptr_t)address % (2 * MIB) == 0, "become whole pages, aligned for huge ones");
  tap_ok(resident(address, size) == size / PAGE, "all of them touched");
  packbuf_i_mark_memory((uint64_t)(uintptr_t)&marked, (uint64_t)(uintptr_t)&marked + 1);
  if (packbuf_i_memory_marked((uint64_t)(uintptr_t)&marked, (uint64_t)(uintptr_t)&marked + 1))
    tap_ok(packbuf_i_memory_marked((uint64_t)(uintptr_t)address, (uint64_t)(uintptr_t)address + size),
           "none of it in core dumps");
  else tap_note("marks of memory cannot be seen here");
  tap_ok(!taken(pool, 63, 1200 * PAGE, &slice) && !taken(pool, 63, 64 * PAGE, &second) &&
             counts_of(pool).used == 1264 * PAGE,
         "slices of many pages");
  packbuf_slice_release(&slice);
  packbuf_slice_release(&second);
  tap_ok(counts_of(pool).used == 0 && !packbuf_pool_close(pool, &error), "closed");
  options.untouched = 1;
  options.huge_pages = 1;
  tap_ok(!packbuf_pool_open(&options, &pool, &error), "untouched");
  packbuf_i_pool_range(pool, &address, &size);
  tap_ok(resident(address, size) == 0, "none of them touched");
  tap_ok(!packbuf_pool_close(pool, &error) && !packbuf_pool_close(NULL, &error), "closed; NULL too");
}

static void test_callers_memory(void) {
  packbuf_pool_options options;
  packbuf_pool *pool = NULL;
  packbuf_slice slice;
  char *memory = (char *)mmap(NULL, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const void *address;
  uint64_t size;
  int good = 1;
  memset(&options, 0, sizeof options);
  for (int i = 0; i < 10 * PAGE; i++) memory[i] = (char)(i * 7);
  options.memory = memory + 64;
  options.size = 5 * PAGE;
  tap_ok(packbuf_pool_open(&options, &pool, &error) == PACKBUF_INVALID_ARGUMENT, "memory that is not aligned to 4096");
  options.memory = memory;
  options.size = PAGE - 1;
  tap_ok(packbuf_pool_open(&options, &pool, &error) == PACKBUF_INVALID_ARGUMENT, "memory of less than a page");
  options.size = 0;
  tap_ok(packbuf_pool_open(&options, &pool, &error) == PACKBUF_INVALID_ARGUMENT, "memory of unknown size");
  options.size = 6 * PAGE - 1;
  tap_ok(!packbuf_pool_open(&options, &pool, &error), "memory of the caller's");
  packbuf_i_pool_range(pool, &address, &size);
  for (int i = 0; i < 10 * PAGE; i++) good = good && memory[i] == (char)(i * 7);
  tap_ok(address == memory && size == 5 * PAGE && good, "is used as far as pages are whole, and keeps what is in it");
  tap_ok(!taken(pool, 0, 5 * PAGE, &slice) && slice.data == memory, "a slice of all of it");
  packbuf_slice_release(&slice);
  tap_ok(!packbuf_pool_close(pool, &error) && resident(memory, 10 * PAGE) == 10, "and stays the caller's");
  (void)munmap(memory + 3 * PAGE, PAGE);
#if defined(MADV_POPULATE_WRITE)
  if (madvise(memory, PAGE, MADV_POPULATE_WRITE) != 0) tap_note("a kernel that does not say what cannot be written");
  else tap_ok(packbuf_pool_open(&options, &pool, &error) == PACKBUF_INVALID_ARGUMENT, "memory with a hole in it");
#endif
  (void)munmap(memory, 10 * PAGE);
}

/* ---- taking ---- */

static void test_slices(void) {
  packbuf_pool *pool = pool_of(16 * PAGE);
  packbuf_slice slices[16], none;
  uint64_t sizes[16] = {PAGE + 1, 1, 5 * PAGE, 3 * PAGE - 1};
  int good = 1;
  tap_ok(!packbuf_pool_take(pool, 0, sizes, 4, PACKBUF_NO_WAIT, slices, &error) && counts_of(pool).used == 11 * PAGE &&
             counts_of(pool).slices == 4,
         "four slices take their sizes in whole pages");
  for (int i = 0; i < 4; i++) {
    good = good && (uintptr_t)slices[i].data % PAGE == 0 && slices[i].size == sizes[i];
    memset(slices[i].data, i + 1, (size_t)sizes[i]);
  }
  for (int i = 0; i < 4; i++)
    for (uint64_t at = 0; at < sizes[i]; at++) good = good && ((char *)slices[i].data)[at] == i + 1;
  tap_ok(good, "aligned, of the size asked for, and apart");
  for (int i = 4; i < 9; i++) good = good && !taken(pool, 0, PAGE, &slices[i]);
  tap_ok(good && counts_of(pool).used == 16 * PAGE, "tails are handed out again, to the last page");
  memset(&none, 1, sizeof none);
  tap_ok(taken(pool, 0, 1, &none) == PACKBUF_FULL && !none.data && !none.holder && error.message[0],
         "full; an empty slice");
  packbuf_slice_release(&none);
  for (int i = 0; i < 9; i++) packbuf_slice_release(&slices[i]);
  packbuf_slice_release(&slices[0]);
  tap_ok(!slices[3].data && !slices[3].holder && counts_of(pool).used == 0 && counts_of(pool).slices == 0 &&
             counts_of(pool).peak == 16 * PAGE && counts_of(pool).largest == 16 * PAGE,
         "given back, cleared, joined; the peak is remembered");
  tap_ok(!taken(pool, 0, 16 * PAGE, &slices[0]), "all of it in one");
  packbuf_slice_release(&slices[0]);
  tap_ok(!taken(pool, 0, PAGE, &slices[0]), "and the account may take again");
  packbuf_slice_release(&slices[0]);
  tap_ok(counts_of(pool).used == 0 && !packbuf_pool_close(pool, &error), "nothing is out: closed");
}

static void test_refusals(void) {
  packbuf_pool *pool = pool_of(16 * PAGE);
  packbuf_slice slices[4], one;
  uint64_t sizes[4] = {PAGE, 17 * PAGE, PAGE, PAGE};
  tap_ok(packbuf_pool_take(pool, 64, sizes, 1, 0, slices, &error) == PACKBUF_INVALID_ARGUMENT,
         "there is no account 64");
  tap_ok(!packbuf_pool_take(pool, 0, NULL, 0, 0, NULL, &error), "no slices: fine");
  tap_ok(packbuf_pool_take(pool, 0, sizes, 2, PACKBUF_FOREVER, slices, &error) == PACKBUF_CAPACITY && error.row == 1,
         "a slice larger than the pool: CAPACITY at once, and which");
  sizes[1] = 0;
  tap_ok(packbuf_pool_take(pool, 0, sizes, 2, 0, slices, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1,
         "a slice of no bytes");
  sizes[0] = 10 * PAGE, sizes[1] = 7 * PAGE;
  tap_ok(packbuf_pool_take(pool, 0, sizes, 2, PACKBUF_FOREVER, slices, &error) == PACKBUF_CAPACITY,
         "slices that are more than the pool together");
  sizes[0] = sizes[1] = sizes[2] = UINT64_MAX;
  tap_ok(packbuf_pool_take(pool, 0, sizes, 3, PACKBUF_FOREVER, slices, &error) == PACKBUF_CAPACITY, "sizes near 2^64");
  sizes[0] = 10 * PAGE, sizes[1] = 5 * PAGE;
  tap_ok(packbuf_pool_take(pool, 0, sizes, 2, PACKBUF_FOREVER, slices, &error) == PACKBUF_CAPACITY,
         "slices that do not fit together though their sum does");
  tap_ok(!taken(pool, 0, 9 * PAGE, &one), "nine pages are out");
  sizes[0] = 4 * PAGE, sizes[1] = 3 * PAGE;
  memset(slices, 1, sizeof slices);
  tap_ok(packbuf_pool_take(pool, 0, sizes, 2, PACKBUF_NO_WAIT, slices, &error) == PACKBUF_FULL &&
             counts_of(pool).used == 9 * PAGE && counts_of(pool).slices == 1 && !slices[0].data && !slices[0].token &&
             !slices[1].data && !slices[1].token,
         "the second of two finds no room: none is taken");
  tap_ok(packbuf_pool_close(pool, &error) == PACKBUF_LEASED && !taken(pool, 0, PAGE, &slices[0]),
         "not closed while slices are out; works on");
  packbuf_slice_release(&slices[0]);
  packbuf_slice_release(&one);
  packbuf_i_pool_use(pool);
  tap_ok(packbuf_pool_close(pool, &error) == PACKBUF_LEASED, "not closed while a store uses it");
  packbuf_i_pool_unuse(pool);
  tap_ok(!packbuf_pool_close(pool, &error), "closed after");
}

static void test_quotas(void) {
  packbuf_pool *pool = pool_of(64 * PAGE);
  packbuf_slice slices[8];
  packbuf_lease lease;
  uint64_t sizes[2] = {PAGE, 3 * PAGE}, begin;
  tap_ok(packbuf_pool_quota(pool, 64, 1, &error) == PACKBUF_INVALID_ARGUMENT, "no quota of account 64");
  tap_ok(!packbuf_pool_quota(pool, 3, 4 * PAGE + 4095, &error) && !taken(pool, 3, 2 * PAGE, &slices[0]) &&
             !taken(pool, 3, PAGE + 1, &slices[1]),
         "four pages on account 3");
  tap_ok(taken(pool, 3, 1, &slices[2]) == PACKBUF_QUOTA && !taken(pool, 63, 1, &slices[2]),
         "no more; but on account 63");
  begin = packbuf_now();
  tap_ok(packbuf_pool_take(pool, 3, sizes, 1, begin + 50 * 1000000u, &slices[3], &error) == PACKBUF_QUOTA &&
             packbuf_now() >= begin + 50 * 1000000u,
         "QUOTA at the deadline");
  packbuf_slice_release(&slices[0]);
  tap_ok(packbuf_pool_take(pool, 3, sizes, 2, PACKBUF_NO_WAIT, &slices[3], &error) == PACKBUF_QUOTA,
         "two slices of four pages, where two are left: none");
  memset(&lease, 0, sizeof lease);
  tap_ok(!taken(pool, 3, 2 * PAGE, &slices[0]), "two");
  lease.data = slices[0].data, lease.size = slices[0].size;
  lease.holder = slices[0].holder, lease.token = slices[0].token;
  packbuf_lease_release(&lease);
  tap_ok(!lease.data && !taken(pool, 3, PAGE, &slices[0]), "a slice may come back as a lease");
  tap_ok(packbuf_pool_take(pool, 3, sizes + 1, 1, PACKBUF_NO_WAIT, &slices[3], &error) == PACKBUF_QUOTA,
         "quota 4, used 3, 3 wanted");
  (void)packbuf_pool_quota(pool, 3, 2 * PAGE, &error);
  tap_ok(packbuf_pool_take(pool, 3, sizes + 1, 1, PACKBUF_FOREVER, &slices[3], &error) == PACKBUF_QUOTA,
         "more than the quota: QUOTA at once, as waiting would not help");
  (void)packbuf_pool_quota(pool, 3, UINT64_MAX, &error);
  tap_ok(!taken(pool, 3, 32 * PAGE, &slices[3]) && taken(pool, 3, 32 * PAGE, &slices[4]) == PACKBUF_FULL,
         "no bound again");
  for (int i = 0; i < 4; i++) packbuf_slice_release(&slices[i]);
  tap_ok(counts_of(pool).used == 0 && !packbuf_pool_close(pool, &error), "closed");
}

/* ---- waiting ---- */

/* Someone who takes in a thread of his own. */
typedef struct waiter {
  pthread_t thread;
  packbuf_pool *pool;
  uint64_t size, deadline, count;
  packbuf_slice slices[4];
  packbuf_status status;
  uint32_t account, done;
} waiter;

static void *wait_for_it(void *argument) {
  waiter *one = (waiter *)argument;
  uint64_t sizes[4];
  packbuf_error mine;
  for (int i = 0; i < 4; i++) sizes[i] = one->size;
  one->status = packbuf_pool_take(one->pool, one->account, sizes, one->count, one->deadline, one->slices, &mine);
  PACKBUF_I_STORE(&one->done, 1u);
  return NULL;
}

/* Starts it and returns when it stands in the queue. */
static void begin(waiter *one, packbuf_pool *pool, uint32_t account, uint64_t size, uint64_t count, uint64_t deadline) {
  const uint64_t before = counts_of(pool).waits;
  memset(one, 0, sizeof *one);
  one->pool = pool;
  one->account = account;
  one->size = size;
  one->count = count;
  one->deadline = deadline;
  (void)pthread_create(&one->thread, NULL, wait_for_it, one);
  while (counts_of(pool).waits == before) packbuf_i_sleep_until(packbuf_now() + 100000);
}

static int waits_on(waiter *one) {
  packbuf_i_sleep_until(packbuf_now() + 5 * 1000000u);
  return !PACKBUF_I_LOAD(&one->done);
}

static packbuf_status end(waiter *one) {
  (void)pthread_join(one->thread, NULL);
  return one->status;
}

static void release_all(waiter *one) {
  for (uint64_t i = 0; i < one->count; i++) packbuf_slice_release(&one->slices[i]);
}

static void test_deadlines(void) {
  packbuf_pool *pool = pool_of(8 * PAGE);
  packbuf_slice all, one;
  waiter a;
  uint64_t size = PAGE, start;
  get(pool, 0, 8 * PAGE, &all);
  start = packbuf_now();
  tap_ok(packbuf_pool_take(pool, 0, &size, 1, start + 50 * 1000000u, &one, &error) == PACKBUF_FULL, "full");
  tap_ok(packbuf_now() - start >= 50 * 1000000u && packbuf_now() - start < (uint64_t)2000 * 1000000u,
         "at the deadline");
  tap_ok(packbuf_pool_take(pool, 0, &size, 1, 1, &one, &error) == PACKBUF_FULL, "a deadline of long ago: at once");
  begin(&a, pool, 0, PAGE, 2, PACKBUF_FOREVER);
  tap_ok(waits_on(&a), "waits for ever");
  packbuf_slice_release(&all);
  tap_ok(!end(&a) && counts_of(pool).used == 2 * PAGE && counts_of(pool).waits == 3, "until room comes back");
  release_all(&a);
  tap_ok(!packbuf_pool_close(pool, &error), "closed");
}

/* Within an account: nobody overtakes, be it a small one. */
static void test_first_come(void) {
  packbuf_pool *pool = pool_of(16 * PAGE);
  packbuf_slice slices[16], extra;
  waiter a[3];
  for (int i = 0; i < 16; i++) get(pool, 5, PAGE, &slices[i]);
  (void)packbuf_pool_quota(pool, 1, 8 * PAGE, &error);
  begin(&a[0], pool, 1, 8 * PAGE, 1, PACKBUF_FOREVER);
  begin(&a[1], pool, 1, PAGE, 1, PACKBUF_FOREVER);
  begin(&a[2], pool, 1, PAGE, 4, PACKBUF_FOREVER);
  for (int i = 0; i < 7; i++) packbuf_slice_release(&slices[i]);
  tap_ok(waits_on(&a[0]) && waits_on(&a[1]) && taken(pool, 1, PAGE, &extra) == PACKBUF_FULL,
         "seven pages are back: the one who wants eight is first, small ones behind him wait");
  packbuf_slice_release(&slices[7]);
  tap_ok(!end(&a[0]) && waits_on(&a[1]), "the eighth: he has them; the next waits for the quota of the account");
  tap_ok(taken(pool, 1, PAGE, &extra) == PACKBUF_QUOTA, "QUOTA is why");
  for (int i = 8; i < 16; i++) packbuf_slice_release(&slices[i]);
  tap_ok(waits_on(&a[1]) && waits_on(&a[2]), "room does not help");
  release_all(&a[0]);
  tap_ok(!end(&a[1]) && !end(&a[2]) && counts_of(pool).used == 5 * PAGE, "but what comes back on the account does");
  release_all(&a[1]);
  release_all(&a[2]);
  get(pool, 1, 8 * PAGE, &slices[0]);
  begin(&a[0], pool, 1, 8 * PAGE, 1, PACKBUF_FOREVER);
  (void)packbuf_pool_quota(pool, 1, 7 * PAGE, &error);
  tap_ok(end(&a[0]) == PACKBUF_QUOTA, "a quota made smaller than what is wanted ends the waiting");
  begin(&a[0], pool, 1, PAGE, 1, PACKBUF_FOREVER);
  (void)packbuf_pool_quota(pool, 1, 9 * PAGE, &error);
  tap_ok(!end(&a[0]), "one made larger serves");
  release_all(&a[0]);
  packbuf_slice_release(&slices[0]);
  tap_ok(!packbuf_pool_close(pool, &error), "closed");
}

/* In the order of their coming, one by one. */
static void test_order(void) {
  packbuf_pool *pool = pool_of(8 * PAGE);
  packbuf_slice slices[8];
  waiter a[4];
  int good = 1;
  for (int i = 0; i < 8; i++) get(pool, 5, PAGE, &slices[i]);
  for (int i = 0; i < 4; i++) begin(&a[i], pool, 1, PAGE, 1, PACKBUF_FOREVER);
  for (int i = 0; i < 4; i++) {
    packbuf_slice_release(&slices[i]);
    good = good && !end(&a[i]) && (i == 3 || waits_on(&a[i + 1]));
  }
  tap_ok(good, "four who wait are served in the order of their coming");
  for (int i = 0; i < 4; i++) release_all(&a[i]);
  for (int i = 4; i < 8; i++) packbuf_slice_release(&slices[i]);
  tap_ok(!packbuf_pool_close(pool, &error), "closed");
}

/* Between accounts: a large wait is not starved by small takes, nor does it take what was free before. */
static void test_reserve(void) {
  packbuf_pool *pool = pool_of(16 * PAGE);
  packbuf_slice slices[16], extra[4];
  waiter large, other, later;
  for (int i = 0; i < 14; i++) get(pool, 5, PAGE, &slices[i]);
  begin(&large, pool, 1, 16 * PAGE, 1, packbuf_deadline_in(60000));
  tap_ok(!taken(pool, 2, PAGE, &extra[0]), "what is free already may be had by others");
  tap_ok(taken(pool, 1, PAGE, &extra[1]) == PACKBUF_FULL, "but not by who comes later on the same account");
  packbuf_slice_release(&slices[0]);
  packbuf_slice_release(&slices[1]);
  tap_ok(!taken(pool, 2, PAGE, &extra[1]) && taken(pool, 2, PAGE, &extra[2]) == PACKBUF_FULL,
         "what comes back is kept for the one who waits");
  begin(&other, pool, 3, PAGE, 1, PACKBUF_FOREVER);
  tap_ok(waits_on(&other), "from those who wait too");
  packbuf_slice_release(&extra[0]);
  packbuf_slice_release(&extra[1]);
  for (int i = 2; i < 13; i++) packbuf_slice_release(&slices[i]);
  tap_ok(waits_on(&large) && waits_on(&other), "fifteen of sixteen pages are free, and kept");
  packbuf_slice_release(&slices[13]);
  tap_ok(!end(&large) && counts_of(pool).used == 16 * PAGE && waits_on(&other), "all are free: the large one has them");
  release_all(&large);
  tap_ok(!end(&other), "then the other");
  release_all(&other);
  get(pool, 5, 8 * PAGE, &slices[0]);
  get(pool, 5, 7 * PAGE, &slices[1]);
  begin(&large, pool, 1, 16 * PAGE, 1, packbuf_deadline_in(100));
  packbuf_slice_release(&slices[0]);
  begin(&later, pool, 2, 8 * PAGE, 1, PACKBUF_FOREVER);
  tap_ok(!taken(pool, 3, PAGE, &extra[0]) && taken(pool, 3, PAGE, &extra[1]) == PACKBUF_FULL,
         "kept until the deadline");
  tap_ok(end(&large) == PACKBUF_FULL && !end(&later), "no longer: the next in the queue is served");
  release_all(&later);
  packbuf_slice_release(&extra[0]);
  packbuf_slice_release(&slices[1]);
  /* one who waits for his quota keeps nothing from others, nor does who stands behind him */
  (void)packbuf_pool_quota(pool, 1, 4 * PAGE, &error);
  get(pool, 1, 3 * PAGE, &slices[0]);
  get(pool, 5, 8 * PAGE, &slices[1]);
  get(pool, 5, 4 * PAGE, &slices[2]);
  begin(&large, pool, 1, 4 * PAGE, 1, PACKBUF_FOREVER);
  begin(&later, pool, 1, PAGE, 1, PACKBUF_FOREVER);
  tap_ok(taken(pool, 1, PAGE, &extra[0]) == PACKBUF_QUOTA,
         "QUOTA is why one waits who stands behind one who waits for it");
  packbuf_slice_release(&slices[1]);
  tap_ok(!taken(pool, 2, 8 * PAGE, &slices[1]), "who waits for his own quota keeps nothing from others");
  packbuf_slice_release(&slices[0]);
  tap_ok(!end(&large), "and is served by what comes back of his own");
  packbuf_slice_release(&slices[2]);
  release_all(&large);
  tap_ok(!end(&later), "so is who stood behind him");
  release_all(&later);
  packbuf_slice_release(&slices[1]);
  tap_ok(counts_of(pool).used == 0 && !packbuf_pool_close(pool, &error), "closed");
}

/* ---- many threads ---- */

enum { THREADS = 6, ROUNDS = 3000, DESK = 16 };

/* Slices go from hand to hand over a desk, so that most are given back by another thread. */
typedef struct crowd {
  packbuf_pool *pool;
  packbuf_i_lock lock;
  packbuf_slice desk[DESK];
  uint32_t wrong, served, refused, next;
} crowd;

static int filled(const packbuf_slice *slice) {
  const uint32_t *words = (const uint32_t *)slice->data;
  for (uint64_t i = 0; i < slice->size / 4; i += 251)
    if (words[i] != words[0]) return 0;
  return 1;
}

static void *crowd_member(void *argument) {
  crowd *all = (crowd *)argument;
  const uint32_t me = PACKBUF_I_ADD(&all->next, 1u);
  uint32_t seed = 12345 + me * 999;
  packbuf_error mine;
  for (uint32_t round = 0; round < ROUNDS / TAP_STEP; round++) {
    packbuf_slice slices[3];
    uint64_t sizes[3];
    uint64_t count;
    packbuf_status status;
    seed = seed * 1664525u + 1013904223u;
    count = 1 + (seed >> 10) % 3;
    for (uint64_t i = 0; i < count; i++)
      sizes[i] = 4 + (seed >> (8 + 4 * i)) % (seed & 64 ? 9 * PAGE : 2 * PAGE) / 4 * 4;
    status = packbuf_pool_take(all->pool, me % 3, sizes, count,
                               seed & 128 ? PACKBUF_NO_WAIT : packbuf_now() + (seed & 1023) * 1000u, slices, &mine);
    (void)PACKBUF_I_ADD(status ? &all->refused : &all->served, 1u);
    if (status && status != PACKBUF_FULL && status != PACKBUF_QUOTA) (void)PACKBUF_I_ADD(&all->wrong, 1u);
    for (uint64_t i = 0; i < count && !status; i++) {
      packbuf_slice *mine_now = &slices[i], other;
      uint32_t *words = (uint32_t *)mine_now->data;
      for (uint64_t at = 0; at < mine_now->size / 4; at += 251) words[at] = seed;
      packbuf_i_locked(&all->lock);
      other = all->desk[(seed >> 4) % DESK];
      all->desk[(seed >> 4) % DESK] = *mine_now;
      packbuf_i_unlocked(&all->lock);
      if (other.data && !filled(&other)) (void)PACKBUF_I_ADD(&all->wrong, 1u);
      packbuf_slice_release(&other);
    }
    if (round % 64 == 0) (void)packbuf_pool_quota(all->pool, me % 3, (8 + seed % 40) * PAGE, &mine);
  }
  return NULL;
}

static void test_threads(void) {
  crowd all;
  pthread_t threads[THREADS];
  packbuf_i_pool_counts counts;
  memset(&all, 0, sizeof all);
  all.pool = pool_of(100 * PAGE);
  (void)packbuf_i_lock_start(&all.lock);
  for (int i = 0; i < THREADS; i++) (void)pthread_create(&threads[i], NULL, crowd_member, &all);
  for (int i = 0; i < THREADS; i++) (void)pthread_join(threads[i], NULL);
  for (int i = 0; i < DESK; i++) packbuf_slice_release(&all.desk[i]);
  counts = counts_of(all.pool);
  tap_ok(!all.wrong && counts.used == 0 && counts.slices == 0 && counts.largest == 100 * PAGE &&
             all.served > all.refused / 100,
         "%u takes by %d threads, %u refused, %u waited: slices apart, all came back", all.served, THREADS, all.refused,
         (unsigned)counts.waits);
  packbuf_i_lock_end(&all.lock);
  tap_ok(!packbuf_pool_close(all.pool, &error), "closed");
}

int main(void) {
  test_options();
  test_allocator();
  test_callers_memory();
  test_slices();
  test_refusals();
  test_quotas();
  test_deadlines();
  test_first_come();
  test_order();
  test_reserve();
  test_threads();
  return tap_plan_done();
}
