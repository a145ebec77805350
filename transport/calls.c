/* transport/calls.c: the calls of a store: opening by scheme or driver, closing, the batches, looking after it.
 * May use: all rooms of the transport before it. Must not know: what a driver does. */

/* ---- opening ---- */

PACKBUF_API packbuf_store_options packbuf_default_store_options(void) {
  packbuf_store_options options;
  memset(&options, 0, sizeof options);
  return options;
}

/* The drivers of this header. */
static const packbuf_driver *packbuf_i_driver_of(const char *uri, size_t size) {
  const packbuf_driver *const drivers[] = {&packbuf_i_local_driver, &packbuf_i_shm_driver, &packbuf_i_tcp_driver,
                                           &packbuf_i_verbs_driver, &packbuf_i_mooncake_driver};
  for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++)
    if (strlen(drivers[i]->scheme) == size && memcmp(drivers[i]->scheme, uri, size) == 0) return drivers[i];
  return NULL;
}

/* Ends all that was begun. */
static void packbuf_i_store_free(packbuf_store *store) {
  packbuf_allocator allocator = store->allocator;
  while (store->spare) {
    packbuf_i_leased *one = store->spare;
    store->spare = one->after;
    (void)packbuf_i_heap(&allocator, one, sizeof *one, 0);
  }
  if (store->workers) packbuf_i_workers_stop(store->workers);
  if (store->cached) packbuf_i_cache_end(&store->cache);
  if (store->opened) store->driver->close(store->state);
  if (store->pool) packbuf_i_pool_unuse(store->pool);
  if (store->pool && store->own_pool) (void)packbuf_pool_close(store->pool, NULL);
  packbuf_i_fork_word_end(store->here);
  packbuf_i_signal_end(&store->changed);
  packbuf_i_lock_end(&store->lock);
  (void)packbuf_i_heap(&allocator, store, sizeof *store, 0);
}

/* The pool of a store whose driver reserves nothing: the caller's, or one of its own. */
static packbuf_status packbuf_i_open_pool(packbuf_store *store, packbuf_store_options *options, packbuf_error *error) {
  packbuf_pool_options wanted;
  packbuf_status status = PACKBUF_OK;
  if (store->driver->reserve) return PACKBUF_OK;
  memset(&wanted, 0, sizeof wanted);
  wanted.size = options->pool_size;
  wanted.huge_pages = options->huge_pages;
  wanted.allocator = options->allocator;
  store->own_pool = options->pool == NULL;
  if (store->own_pool) status = packbuf_pool_open(&wanted, &options->pool, error);
  if (status) return status;
  store->pool = options->pool;
  packbuf_i_pool_use(store->pool);
  return PACKBUF_OK;
}

/* The handle, before its driver is opened. */
static packbuf_store *packbuf_i_store_new(const packbuf_driver *driver, const packbuf_store_options *options) {
  const packbuf_allocator allocator = options->allocator ? *options->allocator : packbuf_i_plain_heap;
  packbuf_store *store;
  store = (packbuf_store *)packbuf_i_heap(&allocator, NULL, 0, sizeof *store);
  if (!store) return NULL;
  store->allocator = allocator;
  store->driver = &store->known;
  memcpy(&store->known, driver, driver->size < sizeof store->known ? driver->size : sizeof store->known);
  store->holder.slice_back = packbuf_i_slice_back;
  store->holder.lease_back = packbuf_i_lease_back;
  store->read_only = options->read_only;
  store->no_auto_register = options->no_auto_register;
  store->worker_count = options->workers ? options->workers : 1;
  if (store->worker_count > PACKBUF_I_WORKERS) store->worker_count = PACKBUF_I_WORKERS;
  store->leases.before = store->leases.after = &store->leases;
  for (unsigned i = 0; i < PACKBUF_ACCOUNTS; i++) store->quota[i] = UINT64_MAX;
  if (!packbuf_i_lock_start(&store->lock) || !packbuf_i_signal_start(&store->changed)) {
    (void)packbuf_i_heap(&allocator, store, sizeof *store, 0);
    return NULL;
  }
  store->here = packbuf_i_fork_word();
  return store;
}

/* The registration cache, with the pool's slab in it. */
static packbuf_status packbuf_i_open_cache(packbuf_store *store, packbuf_error *error) {
  const packbuf_driver *driver = store->driver;
  const void *slab;
  uint64_t size;
  if (!packbuf_i_cache_start(&store->cache, driver->attach, driver->detach, store->state, &store->allocator))
    return packbuf_i_system_fail(error, "no lock", errno);
  store->cached = 1;
  if (!store->pool) return PACKBUF_OK;
  packbuf_i_pool_range(store->pool, &slab, &size);
  return packbuf_i_cache_register(&store->cache, slab, size, error);
}

/* What only some stores know is their business. */
static packbuf_status packbuf_i_any_option(void *context, const packbuf_i_uri_option *option) {
  (void)context, (void)option;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_store_open_driver(const packbuf_driver *driver, const char *uri,
                                                     const packbuf_store_options *options, packbuf_store **store,
                                                     packbuf_error *error) {
  packbuf_store_options with = options ? *options : packbuf_default_store_options();
  packbuf_store_info info;
  packbuf_store *made;
  packbuf_status status;
  *store = NULL;
  status = packbuf_i_uri_options(uri, &with, NULL, 0, packbuf_i_any_option, NULL, error);
  if (status) return status;
  made = packbuf_i_store_new(driver, &with);
  if (!made) return packbuf_i_no_memory(error);
  status = packbuf_i_open_pool(made, &with, error);
  if (!status) status = driver->open(&made->state, uri, &with, error);
  made->opened = !status;
  if (!status) status = packbuf_i_open_cache(made, error);
  memset(&info, 0, sizeof info);
  if (!status) status = driver->describe(made->state, &info, packbuf_deadline_in(5000), error);
  if (status) {
    packbuf_i_store_free(made);
    return status;
  }
  made->capabilities = info.capabilities;
  *store = made;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_store_open(const char *uri, const packbuf_store_options *options,
                                              packbuf_store **store, packbuf_error *error) {
  const char *colon = uri ? strchr(uri, ':') : NULL;
  const packbuf_driver *driver = colon ? packbuf_i_driver_of(uri, (size_t)(colon - uri)) : NULL;
  *store = NULL;
  if (!driver)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT,
                               "a store's URI begins with local:, shm:, tcp://, verbs:// or mooncake://");
  return packbuf_store_open_driver(driver, uri, options, store, error);
}

/* ---- closing ---- */

/* Waits until no operation is under way; what is out then. */
static packbuf_status packbuf_i_store_idle(packbuf_store *store, uint64_t deadline, packbuf_error *error) {
  int in_time = 1, busy, out;
  packbuf_i_locked(&store->lock);
  while (store->busy && in_time) in_time = packbuf_i_wait(&store->changed, &store->lock, deadline);
  busy = store->busy != 0;
  out = store->leases.after != &store->leases || store->slices;
  packbuf_i_unlocked(&store->lock);
  if (store->own_pool) {
    packbuf_i_pool_counts pool;
    packbuf_i_pool_count(store->pool, &pool);
    out |= pool.slices != 0;
  }
  if (busy) return packbuf_i_call_fail(error, PACKBUF_TIMEOUT, "operations are under way");
  if (out) return packbuf_i_call_fail(error, PACKBUF_LEASED, "leases or slices of the store are out");
  if (store->workers && packbuf_i_workers_busy(store->workers))
    return packbuf_i_call_fail(error, PACKBUF_LEASED, "what was submitted has not been polled");
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_store_close(packbuf_store *store, uint64_t deadline, packbuf_error *error) {
  packbuf_status status;
  if (!store) return PACKBUF_OK;
  if (!packbuf_i_here(store))
    return PACKBUF_OK; /* locks may be held by threads that are not here: nothing is touched */
  status = packbuf_i_store_idle(store, deadline, error);
  if (status) return status;
  packbuf_i_store_free(store);
  return PACKBUF_OK;
}

/* ---- batches ---- */

/* One more operation is under way, or one less. */
static void packbuf_i_store_busy(packbuf_store *store, int more) {
  packbuf_i_locked(&store->lock);
  store->busy += (uint64_t)(int64_t)more;
  if (!store->busy) packbuf_i_store_changed(store);
  packbuf_i_unlocked(&store->lock);
}

/* Runs a batch for a caller who waits. */
static packbuf_status packbuf_i_batch(packbuf_store *store, packbuf_operation operation, packbuf_item *items,
                                      uint64_t count, uint64_t deadline, packbuf_error *error) {
  uint64_t first = 0;
  if (packbuf_i_here(store)) {
    packbuf_i_store_busy(store, 1);
    packbuf_i_run_items(store, operation, items, count, deadline, NULL);
    packbuf_i_store_busy(store, -1);
  } else {
    for (uint64_t i = 0; i < count; i++) items[i].status = PACKBUF_DISCONNECTED;
  }
  while (first < count && !items[first].status) first++;
  if (first == count) return PACKBUF_OK;
  return packbuf_i_item_fail(
      error, items[first].status, packbuf_i_item_text(items[first].status, operation, items[first].key),
      items[first].key, first,
      items[first].status == PACKBUF_UNREGISTERED
          ? (uint64_t)(uintptr_t)(operation == PACKBUF_PUT ? items[first].from : items[first].into)
          : PACKBUF_NOWHERE);
}

PACKBUF_API packbuf_status packbuf_batch_put(packbuf_store *store, packbuf_item *items, uint64_t count,
                                             uint64_t deadline, packbuf_error *error) {
  return packbuf_i_batch(store, PACKBUF_PUT, items, count, deadline, error);
}

PACKBUF_API packbuf_status packbuf_batch_get(packbuf_store *store, packbuf_item *items, uint64_t count,
                                             uint64_t deadline, packbuf_error *error) {
  return packbuf_i_batch(store, PACKBUF_GET, items, count, deadline, error);
}

PACKBUF_API packbuf_status packbuf_batch_stat(packbuf_store *store, packbuf_item *items, uint64_t count,
                                              uint64_t deadline, packbuf_error *error) {
  return packbuf_i_batch(store, PACKBUF_STAT, items, count, deadline, error);
}

PACKBUF_API packbuf_status packbuf_batch_remove(packbuf_store *store, packbuf_item *items, uint64_t count,
                                                uint64_t deadline, packbuf_error *error) {
  return packbuf_i_batch(store, PACKBUF_REMOVE, items, count, deadline, error);
}

/* ---- looking after it ---- */

PACKBUF_API packbuf_status packbuf_store_describe(packbuf_store *store, packbuf_store_info *info, uint64_t deadline,
                                                  packbuf_error *error) {
  memset(info, 0, sizeof *info);
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  return store->driver->describe(store->state, info, deadline, error);
}

static packbuf_status packbuf_i_cannot(packbuf_error *error) {
  return packbuf_i_call_fail(error, PACKBUF_UNSUPPORTED_OPERATION, "this store cannot do that");
}

PACKBUF_API packbuf_status packbuf_store_list(packbuf_store *store, const char *prefix, uint64_t *cursor,
                                              packbuf_listed *listed, uint64_t capacity, uint64_t *count,
                                              uint64_t deadline, packbuf_error *error) {
  *count = 0;
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (!store->driver->list) return packbuf_i_cannot(error);
  return store->driver->list(store->state, prefix, cursor, listed, capacity, count, deadline, error);
}

PACKBUF_API packbuf_status packbuf_store_collect(packbuf_store *store, uint64_t deadline, uint64_t *left,
                                                 packbuf_error *error) {
  uint64_t none = 0;
  if (left) *left = 0;
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (!store->driver->collect) return PACKBUF_OK;
  return store->driver->collect(store->state, deadline, left ? left : &none, error);
}

PACKBUF_API packbuf_status packbuf_store_sessions(packbuf_store *store, uint64_t *cursor, packbuf_session *sessions,
                                                  uint64_t capacity, uint64_t *count, packbuf_error *error) {
  *count = 0;
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (!store->driver->keeper) return packbuf_i_cannot(error);
  return store->driver->keeper->sessions(store->state, cursor, sessions, capacity, count, error);
}

PACKBUF_API packbuf_status packbuf_store_held(packbuf_store *store, uint64_t *cursor, packbuf_held *held,
                                              uint64_t capacity, uint64_t *count, packbuf_error *error) {
  *count = 0;
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (!store->driver->keeper) return packbuf_i_cannot(error);
  return store->driver->keeper->held(store->state, cursor, held, capacity, count, error);
}

PACKBUF_API packbuf_status packbuf_store_audit(packbuf_store *store, packbuf_audit *audit, packbuf_error *error) {
  memset(audit, 0, sizeof *audit);
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (!store->driver->keeper) return packbuf_i_cannot(error);
  return store->driver->keeper->audit(store->state, audit, error);
}

PACKBUF_API packbuf_status packbuf_store_free(packbuf_store *store, int force, packbuf_error *error) {
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (!store->driver->keeper) return packbuf_i_cannot(error);
  if (store->read_only) return packbuf_i_call_fail(error, PACKBUF_READ_ONLY, "the store was opened for reading alone");
  return store->driver->keeper->take_away(store->state, force, error);
}

PACKBUF_API packbuf_status packbuf_store_inject(packbuf_store *store, const packbuf_fault *faults, uint64_t count,
                                                packbuf_error *error) {
  if (!packbuf_i_here(store)) return packbuf_i_gone(error);
  if (!store->driver->inject) return packbuf_i_cannot(error);
  return store->driver->inject(store->state, faults, count, error);
}
