/* transport/pool.c: packbuf_pool: a slab in slices, charged to accounts, and the queue of those who wait for some. Who
 * gives back serves the queue, so that nobody who comes later gets what somebody waits for: within an account first
 * come is first served; of all accounts, the taker that has waited longest with quota to spare gets what comes back
 * from then on, while others may still have what was free before.
 * May use: system, buddy. Must not know: stores, what slices hold. */
#include <stddef.h>

#define PACKBUF_I_POOL_SIZE ((uint64_t)256 << 20)
#define PACKBUF_I_HUGE_PAGE ((uint64_t)2 << 20)

/* One call of packbuf_pool_take; in the queue when it waits. */
typedef struct packbuf_i_taker {
  const uint64_t *sizes;
  packbuf_slice *slices;
  uint64_t count, pages;
  uint32_t account;
  int ended;
  packbuf_status status; /* when it has ended */
  packbuf_i_signal signal;
  struct packbuf_i_taker *next;
} packbuf_i_taker;

struct packbuf_pool {
  packbuf_i_holder holder; /* first */
  packbuf_allocator allocator;
  packbuf_i_lock lock;
  packbuf_i_buddy buddy;
  uint8_t *slab, *mapped; /* mapped: NULL where it is the caller's memory */
  uint64_t mapped_size;
  uint64_t slices, users, waits, peak;
  packbuf_i_taker *queue;                                   /* in the order of their coming */
  packbuf_i_taker *longest;                                 /* the one that what comes back is kept for */
  uint64_t kept;                                            /* pages that came back since */
  uint64_t quota[PACKBUF_ACCOUNTS], used[PACKBUF_ACCOUNTS]; /* pages */
};

/* A slice's token says all that is to be known to take it back: first page, pages, account. */
static uint64_t packbuf_i_pool_token(uint64_t page, uint64_t pages, uint32_t account) {
  return page | pages << 28 | (uint64_t)account << 57;
}
static uint64_t packbuf_i_token_page(uint64_t token) { return token & 0xFFFFFFFu; }
static uint64_t packbuf_i_token_pages(uint64_t token) { return token >> 28 & 0x1FFFFFFFu; }
static uint32_t packbuf_i_token_account(uint64_t token) { return (uint32_t)(token >> 57); }

/* ---- taking ---- */

/* Whether its account has not that much left. */
static int packbuf_i_pool_over(const packbuf_pool *pool, const packbuf_i_taker *taker) {
  const uint64_t quota = pool->quota[taker->account];
  return taker->pages > quota || pool->used[taker->account] > quota - taker->pages;
}

/* 1, and the slices; 0: there is no room. Its quota was looked at. */
static int packbuf_i_pool_cut(packbuf_pool *pool, const packbuf_i_taker *taker) {
  const uint64_t idle = pool->buddy.pages - pool->buddy.used, kept = pool->longest == taker ? 0 : pool->kept;
  if (taker->pages > idle - kept) return 0;
  if (!packbuf_i_buddy_take_all(&pool->buddy, taker->sizes, taker->count,
                                (uint8_t *)taker->slices + offsetof(packbuf_slice, token), sizeof *taker->slices))
    return 0;
  for (uint64_t i = 0; i < taker->count; i++) {
    packbuf_slice *slice = &taker->slices[i];
    slice->data = pool->slab + (size_t)(slice->token * PACKBUF_I_PAGE);
    slice->size = taker->sizes[i];
    slice->holder = &pool->holder;
    slice->token = packbuf_i_pool_token(slice->token, packbuf_i_buddy_pages(slice->size), taker->account);
  }
  pool->used[taker->account] += taker->pages;
  pool->slices += taker->count;
  if (pool->peak < pool->buddy.used) pool->peak = pool->buddy.used;
  return 1;
}

/* OK, or why not: its quota or that of the one it would stand behind, else room. */
static packbuf_status packbuf_i_pool_try(packbuf_pool *pool, const packbuf_i_taker *taker) {
  const packbuf_i_taker *head = pool->queue;
  while (head && head->account != taker->account) head = head->next;
  if (packbuf_i_pool_over(pool, taker) || (head && packbuf_i_pool_over(pool, head))) return PACKBUF_QUOTA;
  return (!head || head == taker) && packbuf_i_pool_cut(pool, taker) ? PACKBUF_OK : PACKBUF_FULL;
}

/* Keeps what comes back from now on for this taker. NULL: for nobody. */
static void packbuf_i_pool_keep_for(packbuf_pool *pool, packbuf_i_taker *taker) {
  if (pool->longest == taker) return;
  pool->longest = taker;
  pool->kept = 0;
}

/* Serves the queue when something came back, a quota changed, or somebody left. */
static void packbuf_i_pool_serve(packbuf_pool *pool) {
  packbuf_i_taker **at = &pool->queue, *longest = NULL;
  uint64_t blocked = 0; /* accounts whose first taker goes on waiting, and so do all behind it */
  while (*at) {
    packbuf_i_taker *taker = *at;
    const uint64_t account = (uint64_t)1 << taker->account;
    if (!(blocked & account)) {
      if (!longest && !packbuf_i_pool_over(pool, taker)) packbuf_i_pool_keep_for(pool, longest = taker);
      taker->status = packbuf_i_pool_try(pool, taker);
      if (!taker->status || taker->pages > pool->quota[taker->account]) {
        if (longest == taker) packbuf_i_pool_keep_for(pool, longest = NULL);
        *at = taker->next;
        taker->ended = 1;
        packbuf_i_signal_all(&taker->signal);
        continue;
      }
      blocked |= account;
    }
    at = &taker->next;
  }
  packbuf_i_pool_keep_for(pool, longest);
}

/* Stands in the queue to the deadline. */
static packbuf_status packbuf_i_pool_wait(packbuf_pool *pool, packbuf_i_taker *taker, uint64_t deadline) {
  packbuf_i_taker **at = &pool->queue;
  if (!packbuf_i_signal_start(&taker->signal)) return PACKBUF_OUT_OF_MEMORY;
  while (*at) at = &(*at)->next;
  *at = taker;
  pool->waits++;
  packbuf_i_pool_serve(pool);
  while (!taker->ended && packbuf_i_wait(&taker->signal, &pool->lock, deadline)) continue;
  if (!taker->ended) {
    taker->status = packbuf_i_pool_try(pool, taker);
    for (at = &pool->queue; *at != taker;) at = &(*at)->next;
    *at = taker->next;
    packbuf_i_pool_serve(pool);
  }
  packbuf_i_signal_end(&taker->signal);
  return taker->status;
}

/* What can be said of the sizes alone. */
static packbuf_status packbuf_i_pool_check(const packbuf_pool *pool, packbuf_i_taker *taker, packbuf_error *error) {
  if (taker->account >= PACKBUF_ACCOUNTS)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "accounts are 0 to 63");
  for (uint64_t i = 0; i < taker->count; i++) {
    const uint64_t pages = packbuf_i_buddy_pages(taker->sizes[i]);
    if (!pages)
      return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a slice has at least one byte", PACKBUF_NOWHERE, i);
    if (pages > pool->buddy.pages - taker->pages) {
      packbuf_i_fail(error, PACKBUF_CAPACITY, "the pool is smaller than that", PACKBUF_NOWHERE, i);
      return PACKBUF_CAPACITY;
    }
    taker->pages += pages;
  }
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_pool_take(packbuf_pool *pool, uint32_t account, const uint64_t *sizes,
                                             uint64_t count, uint64_t deadline, packbuf_slice *slices,
                                             packbuf_error *error) {
  packbuf_i_taker taker;
  packbuf_status status;
  memset(&taker, 0, sizeof taker);
  taker.sizes = sizes;
  taker.slices = slices;
  taker.count = count;
  taker.account = account;
  if (count) memset(slices, 0, (size_t)count * sizeof *slices);
  status = packbuf_i_pool_check(pool, &taker, error);
  if (status || !count) return status;
  packbuf_i_locked(&pool->lock);
  status = packbuf_i_pool_try(pool, &taker);
  if (status) {
    if (!packbuf_i_buddy_could(pool->buddy.pages, sizes, count)) status = PACKBUF_CAPACITY;
    else if (deadline != PACKBUF_NO_WAIT) status = packbuf_i_pool_wait(pool, &taker, deadline);
  }
  packbuf_i_unlocked(&pool->lock);
  if (!status) return PACKBUF_OK;
  memset(slices, 0, (size_t)count * sizeof *slices);
  return packbuf_i_call_fail(error, status,
                             status == PACKBUF_QUOTA      ? "the account's quota is used up"
                             : status == PACKBUF_CAPACITY ? "the pool cannot hold these slices together"
                             : status == PACKBUF_FULL     ? "the pool is full"
                                                          : packbuf_i_no_memory_text);
}

/* ---- giving back ---- */

/* Takes back the slice whose token that was. */
static void packbuf_i_pool_back(packbuf_pool *pool, uint64_t token) {
  const uint64_t pages = packbuf_i_token_pages(token);
  packbuf_i_locked(&pool->lock);
  packbuf_i_buddy_give(&pool->buddy, packbuf_i_token_page(token), pages);
  pool->used[packbuf_i_token_account(token)] -= pages;
  pool->slices--;
  if (pool->longest) pool->kept += pages;
  packbuf_i_pool_serve(pool);
  packbuf_i_unlocked(&pool->lock);
}

static void packbuf_i_pool_slice_back(packbuf_i_holder *holder, const packbuf_slice *slice) {
  packbuf_i_pool_back((packbuf_pool *)(void *)holder, slice->token);
}

static void packbuf_i_pool_lease_back(packbuf_i_holder *holder, const packbuf_lease *lease) {
  packbuf_i_pool_back((packbuf_pool *)(void *)holder, lease->token);
}

/* ---- opening ---- */

/* Touches all pages, or says why they are not to be had. What is in them stays. */
static int packbuf_i_pool_touch(uint8_t *memory, uint64_t size) {
#if defined(MADV_POPULATE_WRITE)
  /* An error instead of a signal where huge pages or memory run out. EINVAL: a kernel that does not know it. */
  if (madvise(memory, (size_t)size, MADV_POPULATE_WRITE) == 0) return 1;
  if (errno != EINVAL) return 0;
#endif
  for (uint64_t at = 0; at < size; at += PACKBUF_I_PAGE) {
    volatile uint8_t *byte = memory + (size_t)at;
    *byte = *byte;
  }
  return 1;
}

/* Memory of the system's, perhaps in huge pages; 0: none. */
static int packbuf_i_pool_map(packbuf_pool *pool, uint64_t size, int flags) {
  void *memory;
  if (size > SIZE_MAX) return 0;
  memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (memory == MAP_FAILED) return 0;
  pool->mapped = pool->slab = (uint8_t *)memory;
  pool->mapped_size = size;
  return 1;
}

static void packbuf_i_pool_unmap(packbuf_pool *pool) {
  if (pool->mapped) (void)munmap(pool->mapped, (size_t)pool->mapped_size);
  pool->mapped = NULL;
}

/* In pages that are huge from the start. */
static int packbuf_i_pool_map_huge(packbuf_pool *pool, uint64_t size, int untouched) {
#if defined(MAP_HUGETLB)
  const uint64_t whole = (size + PACKBUF_I_HUGE_PAGE - 1) / PACKBUF_I_HUGE_PAGE * PACKBUF_I_HUGE_PAGE;
  if (!packbuf_i_pool_map(pool, whole, MAP_HUGETLB | 21 << 26)) return 0; /* of 2^21 bytes */
  if (untouched || packbuf_i_pool_touch(pool->slab, size)) return 1;
  packbuf_i_pool_unmap(pool);
#else
  (void)pool, (void)size, (void)untouched;
#endif
  return 0;
}

/* In ordinary pages, aligned so that the system may make huge ones of them, or told not to. */
static int packbuf_i_pool_map_plain(packbuf_pool *pool, uint64_t size, int never_huge, int untouched) {
  const uint64_t more = never_huge ? 0 : PACKBUF_I_HUGE_PAGE;
  if (!packbuf_i_pool_map(pool, size + more, 0)) return 0;
  if (more) {
    const uint64_t before = PACKBUF_I_HUGE_PAGE - (uintptr_t)pool->mapped % PACKBUF_I_HUGE_PAGE;
    pool->slab = pool->mapped + (size_t)before;
    (void)munmap(pool->mapped, (size_t)before);
    if (more > before) (void)munmap(pool->slab + (size_t)size, (size_t)(more - before));
    pool->mapped = pool->slab;
    pool->mapped_size = size;
  }
#if defined(MADV_HUGEPAGE)
  (void)madvise(pool->slab, (size_t)size, never_huge ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
#endif
  if (untouched || packbuf_i_pool_touch(pool->slab, size)) return 1;
  packbuf_i_pool_unmap(pool);
  return 0;
}

/* The slab: the caller's memory, or the system's. */
static packbuf_status packbuf_i_pool_slab(packbuf_pool *pool, const packbuf_pool_options *options, uint64_t size,
                                          packbuf_error *error) {
  int mapped = 0;
  if (options->memory) {
    pool->slab = (uint8_t *)options->memory;
    if (options->untouched || packbuf_i_pool_touch(pool->slab, size)) return PACKBUF_OK;
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "the pool's memory cannot be written");
  }
  if (options->huge_pages == 2 || (!options->huge_pages && size >= PACKBUF_I_HUGE_PAGE))
    mapped = packbuf_i_pool_map_huge(pool, size, options->untouched);
  if (!mapped && options->huge_pages == 2)
    return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, "there are not enough huge pages");
  if (!mapped && !packbuf_i_pool_map_plain(pool, size, options->huge_pages == 1, options->untouched))
    return packbuf_i_no_memory(error);
#if defined(MADV_DONTDUMP)
  (void)madvise(pool->slab, (size_t)size, MADV_DONTDUMP);
#endif
  return PACKBUF_OK;
}

/* The size of the slab, 0 for options that cannot be. */
static uint64_t packbuf_i_pool_size(const packbuf_pool_options *options) {
  uint64_t size = options->size;
  if (options->huge_pages > 2 || (uintptr_t)options->memory % PACKBUF_I_PAGE) return 0;
  if (!size && !options->memory) size = PACKBUF_I_POOL_SIZE;
  if (size > PACKBUF_I_BUDDY_MOST * PACKBUF_I_PAGE) return 0;
  return (options->memory ? size / PACKBUF_I_PAGE : packbuf_i_buddy_pages(size)) * PACKBUF_I_PAGE;
}

/* Gives everything back but the caller's memory. */
static void packbuf_i_pool_free(packbuf_pool *pool) {
  const packbuf_allocator allocator = pool->allocator;
  packbuf_i_pool_unmap(pool);
  if (pool->buddy.links)
    (void)packbuf_i_heap(&allocator, pool->buddy.links, (size_t)packbuf_i_buddy_room(pool->buddy.pages), 0);
  (void)packbuf_i_heap(&allocator, pool, sizeof *pool, 0);
}

PACKBUF_API packbuf_status packbuf_pool_open(const packbuf_pool_options *options, packbuf_pool **pool,
                                             packbuf_error *error) {
  packbuf_pool_options defaults;
  packbuf_allocator allocator = packbuf_i_plain_heap;
  packbuf_pool *made;
  packbuf_status status;
  uint64_t size, tables;
  void *memory;
  memset(&defaults, 0, sizeof defaults);
  if (!options) options = &defaults;
  if (options->allocator) allocator = *options->allocator;
  *pool = NULL;
  size = packbuf_i_pool_size(options);
  if (!size)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT,
                               "a pool has 4096 bytes to 1 TiB, at a multiple of 4096, and huge_pages is 0, 1 or 2");
  tables = packbuf_i_buddy_room(size / PACKBUF_I_PAGE);
  if (tables > SIZE_MAX) return packbuf_i_no_memory(error);
  made = (packbuf_pool *)packbuf_i_heap(&allocator, NULL, 0, sizeof *made);
  if (!made) return packbuf_i_no_memory(error);
  made->allocator = allocator;
  memory = packbuf_i_heap_raw(&allocator, NULL, 0, (size_t)tables); /* most of which stays untouched */
  if (!memory) {
    packbuf_i_pool_free(made);
    return packbuf_i_no_memory(error);
  }
  packbuf_i_buddy_start(&made->buddy, size / PACKBUF_I_PAGE, memory);
  status = packbuf_i_pool_slab(made, options, size, error);
  if (!status && !packbuf_i_lock_start(&made->lock)) status = packbuf_i_no_memory(error);
  if (status) {
    packbuf_i_pool_free(made);
    return status;
  }
  made->holder.slice_back = packbuf_i_pool_slice_back;
  made->holder.lease_back = packbuf_i_pool_lease_back;
  for (unsigned i = 0; i < PACKBUF_ACCOUNTS; i++) made->quota[i] = UINT64_MAX / PACKBUF_I_PAGE;
  *pool = made;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_pool_close(packbuf_pool *pool, packbuf_error *error) {
  uint64_t slices, users;
  if (!pool) return PACKBUF_OK;
  packbuf_i_locked(&pool->lock);
  slices = pool->slices;
  users = pool->users;
  packbuf_i_unlocked(&pool->lock);
  if (slices) return packbuf_i_call_fail(error, PACKBUF_LEASED, "slices of the pool are out");
  if (users) return packbuf_i_call_fail(error, PACKBUF_LEASED, "a store uses the pool");
  packbuf_i_lock_end(&pool->lock);
  packbuf_i_pool_free(pool);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_pool_quota(packbuf_pool *pool, uint32_t account, uint64_t bytes,
                                              packbuf_error *error) {
  if (account >= PACKBUF_ACCOUNTS) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "accounts are 0 to 63");
  packbuf_i_locked(&pool->lock);
  pool->quota[account] = bytes / PACKBUF_I_PAGE;
  packbuf_i_pool_serve(pool);
  packbuf_i_unlocked(&pool->lock);
  return PACKBUF_OK;
}

/* ---- for stores ---- */

/* A store that uses the pool keeps it open. */
static void packbuf_i_pool_use(packbuf_pool *pool) {
  packbuf_i_locked(&pool->lock);
  pool->users++;
  packbuf_i_unlocked(&pool->lock);
}

static void packbuf_i_pool_unuse(packbuf_pool *pool) {
  packbuf_i_locked(&pool->lock);
  pool->users--;
  packbuf_i_unlocked(&pool->lock);
}

/* What a store registers once. It stays where it is. */
static void packbuf_i_pool_range(const packbuf_pool *pool, const void **address, uint64_t *size) {
  *address = pool->slab;
  *size = pool->buddy.pages * PACKBUF_I_PAGE;
}

/* Whether a slice is of this pool. */
static int packbuf_i_pool_owns(const packbuf_pool *pool, const packbuf_slice *slice) {
  return slice->holder == &pool->holder;
}

typedef struct packbuf_i_pool_counts {
  uint64_t size, used, peak, largest; /* bytes: of the slab, out now, the most that ever were out, the longest slice */
  uint64_t slices, waits;             /* slices out now; takes that had to wait */
} packbuf_i_pool_counts;

static void packbuf_i_pool_count(packbuf_pool *pool, packbuf_i_pool_counts *counts) {
  packbuf_i_locked(&pool->lock);
  counts->size = pool->buddy.pages * PACKBUF_I_PAGE;
  counts->used = pool->buddy.used * PACKBUF_I_PAGE;
  counts->peak = pool->peak * PACKBUF_I_PAGE;
  counts->largest = packbuf_i_buddy_largest(&pool->buddy) * PACKBUF_I_PAGE;
  counts->slices = pool->slices;
  counts->waits = pool->waits;
  packbuf_i_unlocked(&pool->lock);
}
