/* transport/handle.c: a store as its user holds it: driver, memory, leases, quotas of accounts and counters. Drivers
 * come after it, and look at nothing of it (`local` alone: at `beside`'s driver and state).
 * May use: system, pool, cache, driver.h. Must not know: what a driver does, items. */

#define PACKBUF_I_COUNTER(store, name, more) ((void)PACKBUF_I_ADD(&(store)->counters.name, (uint64_t)(more)))

/* One lease that is out. */
typedef struct packbuf_i_leased {
  struct packbuf_i_leased *before, *after;
  uint64_t token, size, since; /* token: the driver's; since: packbuf_i_now_about */
  uint32_t account;
} packbuf_i_leased;

#define PACKBUF_I_WORKERS 64u /* threads for what is submitted, at most */

struct packbuf_store {
  packbuf_i_holder holder; /* first */
  const packbuf_driver *driver; /* that is: */
  packbuf_driver known;         /* a copy: members that its maker did not know of are NULL */
  void *state;
  packbuf_allocator allocator; /* resize NULL: realloc and free */
  unsigned capabilities;
  uint8_t read_only, no_auto_register, opened, cached; /* opened: by its driver; cached: the cache has begun */
  uint32_t *here;                                      /* 0 in a child after fork */
  packbuf_pool *pool;                                  /* where the driver reserves nothing; NULL: it does */
  int own_pool;
  packbuf_i_cache cache;
  packbuf_counters counters; /* atomic */
  packbuf_i_lock lock;       /* guards what follows */
  packbuf_i_signal changed;  /* a lease came back, or an operation ended */
  packbuf_i_leased leases;   /* a ring, the oldest behind its head */
  packbuf_i_leased *spare;
  uint64_t leased[PACKBUF_ACCOUNTS], quota[PACKBUF_ACCOUNTS]; /* bytes, where leases are in place */
  uint64_t busy, slices, turns;      /* operations under way; slices out; how often `changed` was signalled */
  struct packbuf_i_workers *workers; /* NULL until the first submit */
  unsigned worker_count;
};

static int packbuf_i_here(const packbuf_store *store) { return !store->here || *store->here; }

static packbuf_status packbuf_i_gone(packbuf_error *error) {
  return packbuf_i_call_fail(error, PACKBUF_DISCONNECTED, "this process was forked: open a store of its own");
}

/* With the lock held. */
static void packbuf_i_store_changed(packbuf_store *store) {
  store->turns++;
  packbuf_i_signal_all(&store->changed);
}

/* ---- leases ---- */

/* Keeps account of a lease that the driver gave, and makes it the handle's. OK; QUOTA: the account may not have it now;
 * OUT_OF_MEMORY. The driver's lease ends unless it is OK. */
static packbuf_status packbuf_i_lease_out(packbuf_store *store, packbuf_lease *lease, uint32_t account) {
  const uint64_t size = store->capabilities & PACKBUF_CAN_IN_PLACE ? lease->size : 0;
  packbuf_status status = PACKBUF_OK;
  packbuf_i_leased *one;
  packbuf_i_locked(&store->lock);
  one = store->spare;
  if (one) store->spare = one->after;
  else one = (packbuf_i_leased *)packbuf_i_heap(&store->allocator, NULL, 0, sizeof *one);
  if (!one) status = PACKBUF_OUT_OF_MEMORY;
  else if (size > store->quota[account] || store->leased[account] > store->quota[account] - size) {
    one->after = store->spare;
    store->spare = one;
    status = PACKBUF_QUOTA;
  } else {
    store->leased[account] += size;
    one->token = lease->token;
    one->size = size;
    one->since = packbuf_i_now_about();
    one->account = account;
    one->after = &store->leases;
    one->before = store->leases.before;
    one->before->after = store->leases.before = one;
    store->counters.leases++;
  }
  packbuf_i_unlocked(&store->lock);
  if (status) {
    store->driver->let_go(store->state, lease->token);
    memset(lease, 0, sizeof *lease);
    return status;
  }
  lease->holder = &store->holder;
  lease->token = (uint64_t)(uintptr_t)one;
  return PACKBUF_OK;
}

static void packbuf_i_lease_back(packbuf_i_holder *holder, const packbuf_lease *lease) {
  packbuf_store *store = (packbuf_store *)(void *)holder;
  packbuf_i_leased *one = (packbuf_i_leased *)(uintptr_t)lease->token;
  if (!packbuf_i_here(store)) return;
  store->driver->let_go(store->state, one->token);
  packbuf_i_locked(&store->lock);
  one->before->after = one->after;
  one->after->before = one->before;
  store->leased[one->account] -= one->size;
  store->counters.leases--;
  one->after = store->spare;
  store->spare = one;
  packbuf_i_store_changed(store);
  packbuf_i_unlocked(&store->lock);
}

static void packbuf_i_slice_back(packbuf_i_holder *holder, const packbuf_slice *slice) {
  packbuf_store *store = (packbuf_store *)(void *)holder;
  if (!packbuf_i_here(store)) return;
  store->driver->give_back(store->state, slice->token);
  packbuf_i_locked(&store->lock);
  store->slices--;
  packbuf_i_unlocked(&store->lock);
}

/* A put took a slice over: one of the store's own is the object now, one of a pool goes back to it. */
static void packbuf_i_slice_taken(packbuf_store *store, packbuf_slice *slice) {
  if (slice->holder != &store->holder) {
    packbuf_slice_release(slice);
    return;
  }
  memset(slice, 0, sizeof *slice);
  packbuf_i_locked(&store->lock);
  store->slices--;
  packbuf_i_unlocked(&store->lock);
}

PACKBUF_API packbuf_status packbuf_store_quota(packbuf_store *store, uint32_t account, uint64_t bytes,
                                               packbuf_error *error) {
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (account >= PACKBUF_ACCOUNTS) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "accounts are 0 to 63");
  if (store->pool) return packbuf_pool_quota(store->pool, account, bytes, error);
  packbuf_i_locked(&store->lock);
  store->quota[account] = bytes;
  packbuf_i_store_changed(store);
  packbuf_i_unlocked(&store->lock);
  return PACKBUF_OK;
}

/* Slices in the store's own memory, all or none; data and tokens have room for as many. */
static packbuf_status packbuf_i_reserve_own(packbuf_store *store, const uint64_t *sizes, uint64_t count,
                                            uint64_t deadline, void **data, uint64_t *tokens, packbuf_slice *slices,
                                            packbuf_error *error) {
  const packbuf_status status =
      store->driver->reserve(store->state, sizes, count, deadline, data, tokens, error);
  if (status) return status;
  for (uint64_t i = 0; i < count; i++) {
    slices[i].data = data[i];
    slices[i].size = sizes[i];
    slices[i].token = tokens[i];
    slices[i].holder = &store->holder;
  }
  packbuf_i_locked(&store->lock);
  store->slices += count;
  packbuf_i_unlocked(&store->lock);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_reserve(packbuf_store *store, uint32_t account, const uint64_t *sizes,
                                           uint64_t count, uint64_t deadline, packbuf_slice *slices,
                                           packbuf_error *error) {
  enum { FEW = 64 };
  void *data[FEW], *more;
  uint64_t tokens[FEW];
  size_t size;
  packbuf_status status;
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (account >= PACKBUF_ACCOUNTS) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "accounts are 0 to 63");
  if (store->read_only) return packbuf_i_call_fail(error, PACKBUF_READ_ONLY, "the store was opened for reading alone");
  if (store->pool) return packbuf_pool_take(store->pool, account, sizes, count, deadline, slices, error);
  if (!count) return PACKBUF_OK;
  if (count > SIZE_MAX / (2 * sizeof *tokens))
    return packbuf_i_call_fail(error, PACKBUF_CAPACITY, "the store is not that large");
  memset(slices, 0, (size_t)count * sizeof *slices);
  if (count <= FEW) return packbuf_i_reserve_own(store, sizes, count, deadline, data, tokens, slices, error);
  size = (size_t)count * (sizeof *tokens + sizeof *data);
  more = packbuf_i_heap(&store->allocator, NULL, 0, size);
  if (!more) return packbuf_i_no_memory(error);
  status = packbuf_i_reserve_own(store, sizes, count, deadline, (void **)((uint64_t *)more + count), (uint64_t *)more,
                                 slices, error);
  (void)packbuf_i_heap(&store->allocator, more, size, 0);
  return status;
}

/* ---- registered memory ---- */

PACKBUF_API packbuf_status packbuf_register(packbuf_store *store, const void *address, uint64_t size,
                                            packbuf_error *error) {
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  return packbuf_i_cache_register(&store->cache, address, size, error);
}

PACKBUF_API packbuf_status packbuf_unregister(packbuf_store *store, const void *address, uint64_t size,
                                              packbuf_error *error) {
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  return packbuf_i_cache_unregister(&store->cache, address, size, error);
}

/* The memory of a store, for a server that lets a device use it. UNAVAILABLE: it does not say. */
static packbuf_status packbuf_i_store_memory(packbuf_store *store, packbuf_driver_memory *memory,
                                             packbuf_error *error) {
  const packbuf_driver *driver = store->driver;
  memset(memory, 0, sizeof *memory);
  if (!driver->memory)
    return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, "this store's memory cannot be served by verbs");
  return driver->memory(store->state, memory, error);
}

/* ---- counters ---- */

PACKBUF_API packbuf_status packbuf_store_counters(packbuf_store *store, packbuf_counters *counters,
                                                  packbuf_error *error) {
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
#define PACKBUF_I_X(name, gauge, text) counters->name = PACKBUF_I_LOAD(&store->counters.name);
  PACKBUF_COUNTER_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
  packbuf_i_cache_counts(&store->cache, &counters->registrations, &counters->registered);
  packbuf_i_locked(&store->lock);
  if (store->leases.after != &store->leases)
    counters->oldest_lease_ms = (packbuf_now() - store->leases.after->since) / 1000000u;
  counters->slices = store->slices;
  packbuf_i_unlocked(&store->lock);
  if (store->pool) {
    packbuf_i_pool_counts pool;
    packbuf_i_pool_count(store->pool, &pool);
    counters->slices = pool.slices;
    counters->pool_used = pool.used;
    counters->pool_peak = pool.peak;
    counters->waits += pool.waits;
  }
  if (store->driver->count) store->driver->count(store->state, counters);
  return PACKBUF_OK;
}
