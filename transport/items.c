/* transport/items.c: the items of a batch, before and after the driver: checked, run, and answered. What drivers need
 * not do: keys, ranges of arguments, capabilities, short reads, leases and slices, quotas of accounts, counters.
 * May use: system, text (keys), cache, handle. Must not know: who waits, what a driver does. */

/* A batch that is being run. */
typedef struct packbuf_i_running {
  packbuf_call call; /* first; of items that were found good */
  packbuf_store *store;
  struct packbuf_i_task *task; /* that was submitted; NULL: the caller waits */
  uint64_t starved;            /* gets whose account is full (atomic) */
} packbuf_i_running;

/* An item of a task ended for good: transport/workers.c. */
static void packbuf_i_task_done(struct packbuf_i_task *task, packbuf_item *item);
static int packbuf_i_task_cancelled(struct packbuf_i_task *task, const packbuf_item *item);
static int packbuf_i_task_ended(struct packbuf_i_task *task, const packbuf_item *item);

/* ---- before ---- */

static packbuf_status packbuf_i_check_put(const packbuf_store *store, const packbuf_item *item) {
  const packbuf_slice *slice = item->slice;
  if (store->read_only) return PACKBUF_READ_ONLY;
  if (!item->from && item->size) return PACKBUF_INVALID_ARGUMENT;
  if (item->size > (uint64_t)INT64_MAX) return PACKBUF_CAPACITY;
  if (item->about && item->about->kind > PACKBUF_OBJECT_MANIFEST) return PACKBUF_INVALID_ARGUMENT;
  if (item->flags & ~(uint32_t)PACKBUF_PUT_EVICTABLE || (item->about && item->about->head_length > item->size))
    return PACKBUF_INVALID_ARGUMENT;
  if (slice && (item->from != slice->data || item->size > slice->size)) return PACKBUF_INVALID_ARGUMENT;
  if ((item->flags & PACKBUF_PUT_EVICTABLE && !(store->capabilities & PACKBUF_CAN_EVICT)) ||
      (item->ttl_ms && !(store->capabilities & PACKBUF_CAN_TTL)))
    return PACKBUF_UNSUPPORTED_OPERATION;
  return PACKBUF_OK;
}

/* What an item asks, before anything is done for it. */
static packbuf_status packbuf_i_check_item(const packbuf_store *store, packbuf_operation operation,
                                           const packbuf_item *item) {
  if (!packbuf_i_here(store)) return PACKBUF_DISCONNECTED;
  if (!item->key || !packbuf_i_key_valid(item->key) || item->account >= PACKBUF_ACCOUNTS)
    return PACKBUF_INVALID_ARGUMENT;
  if (operation == PACKBUF_PUT) return packbuf_i_check_put(store, item);
  if (operation == PACKBUF_REMOVE && store->read_only) return PACKBUF_READ_ONLY;
  if (operation == PACKBUF_GET && ((item->into == NULL && item->capacity) || (item->range_count && !item->ranges)))
    return PACKBUF_INVALID_ARGUMENT;
  return PACKBUF_OK;
}

/* Clears what is answered. */
static void packbuf_i_begin_item(packbuf_item *item) {
  item->status = PACKBUF_SYSTEM; /* until somebody says otherwise */
  memset(&item->stat, 0, sizeof item->stat);
  memset(&item->lease, 0, sizeof item->lease);
  item->got = 0;
}

/* ---- after ---- */

/* A get that the driver calls good: all of it, and leased to its account. */
static packbuf_status packbuf_i_end_get(packbuf_i_running *running, packbuf_item *item) {
  packbuf_store *store = running->store;
  uint64_t expected = item->ranges ? 0 : item->stat.length;
  packbuf_status status = PACKBUF_OK;
  for (uint64_t i = 0; item->ranges && i < item->range_count; i++) expected += item->ranges[i].length;
  if (item->got != expected) {
    if (item->lease.data) store->driver->let_go(store->state, item->lease.token);
    memset(&item->lease, 0, sizeof item->lease);
    PACKBUF_I_COUNTER(store, short_reads, 1);
    return PACKBUF_SHORT_READ;
  }
  if (!item->into) status = packbuf_i_lease_out(store, &item->lease, item->account);
  if (status) {
    item->got = 0;
    return status;
  }
  PACKBUF_I_COUNTER(store, gets, 1);
  PACKBUF_I_COUNTER(store, bytes_got, item->got);
  return PACKBUF_OK;
}

static void packbuf_i_end_put(packbuf_store *store, packbuf_item *item) {
  PACKBUF_I_COUNTER(store, puts, 1);
  PACKBUF_I_COUNTER(store, bytes_put, item->size);
  if (item->slice) packbuf_i_slice_taken(store, item->slice);
}

/* An item has its last status. */
static void packbuf_i_item_settle(packbuf_i_running *running, packbuf_item *item) {
  packbuf_store *store = running->store;
  if (item->status) PACKBUF_I_COUNTER(store, failures, 1);
  if (item->status == PACKBUF_STALE) PACKBUF_I_COUNTER(store, stale, 1);
  if (item->status == PACKBUF_TIMEOUT) PACKBUF_I_COUNTER(store, timeouts, 1);
  if (running->task) packbuf_i_task_done(running->task, item);
}

/* The driver is done with an item. */
static void packbuf_i_item_done(packbuf_call *call, uint64_t index) {
  packbuf_i_running *running = (packbuf_i_running *)(void *)call;
  packbuf_item *item = &call->items[index];
  if (!item->status && call->operation == PACKBUF_GET) {
    item->status = packbuf_i_end_get(running, item);
    if (item->status == PACKBUF_QUOTA && call->deadline != PACKBUF_NO_WAIT) {
      (void)PACKBUF_I_ADD(&running->starved, 1);
      return;
    }
  }
  if (!item->status && call->operation == PACKBUF_PUT) packbuf_i_end_put(running->store, item);
  if (!item->status && call->operation == PACKBUF_REMOVE) PACKBUF_I_COUNTER(running->store, removes, 1);
  packbuf_i_item_settle(running, item);
}

static int packbuf_i_item_cancelled(const packbuf_call *call, uint64_t index) {
  const packbuf_i_running *running = (const packbuf_i_running *)(const void *)call;
  return running->task && packbuf_i_task_cancelled(running->task, &call->items[index]);
}

/* ---- the batch ---- */

/* Memory that an item names, held registered while it runs; item->status says why not. */
static void packbuf_i_hold_memory(packbuf_i_running *running, packbuf_item *item, packbuf_i_registration **held) {
  packbuf_store *store = running->store;
  const int put = running->call.operation == PACKBUF_PUT;
  const void *memory = put ? item->from : item->into;
  const uint64_t size = put ? item->size : item->capacity;
  packbuf_error error;
  *held = NULL;
  if ((!put && running->call.operation != PACKBUF_GET) || !memory || !size || (put && item->slice)) return;
  if ((!store->driver->attach || size <= store->driver->unattached) && !store->no_auto_register) return;
  item->status = packbuf_i_cache_hold(&store->cache, memory, size, !store->no_auto_register, held, &error);
}

/* Runs items that were found good, all of them one after the other in the array. */
static void packbuf_i_run_good(packbuf_i_running *running, packbuf_item *items, void *const *registrations,
                               uint64_t count) {
  packbuf_store *store = running->store;
  running->call.items = items;
  running->call.registrations = registrations;
  running->call.count = count;
  store->driver->run(store->state, &running->call);
}

/* Checks, holds and runs the items of a stretch; those that are not good end here. At most PACKBUF_I_STRETCH. */
#define PACKBUF_I_STRETCH 256u
static void packbuf_i_run_stretch(packbuf_i_running *running, packbuf_item *items, uint64_t count) {
  packbuf_i_registration *held[PACKBUF_I_STRETCH];
  void *registrations[PACKBUF_I_STRETCH];
  uint64_t good = 0;
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_begin_item(&items[i]);
    items[i].status = packbuf_i_check_item(running->store, running->call.operation, &items[i]);
    if (!items[i].status && running->task && packbuf_i_task_cancelled(running->task, &items[i]))
      items[i].status = PACKBUF_CANCELLED;
    held[i] = NULL;
    if (!items[i].status) packbuf_i_hold_memory(running, &items[i], &held[i]);
    registrations[i] = held[i] ? held[i]->handle : NULL;
  }
  for (uint64_t i = 0; i <= count; i++) {
    if (i < count && !items[i].status) {
      items[i].status = PACKBUF_SYSTEM;
      good++;
      continue;
    }
    if (good) packbuf_i_run_good(running, items + i - good, registrations + i - good, good);
    good = 0;
    if (i < count) packbuf_i_item_settle(running, &items[i]);
  }
  for (uint64_t i = 0; i < count; i++) packbuf_i_cache_drop(&running->store->cache, held[i]);
}

/* Runs gets again whose account was full, as leases of it come back, to the deadline. turns: of the store, before they
 * ran. */
static void packbuf_i_run_starved(packbuf_i_running *running, packbuf_item *items, uint64_t count, uint64_t turns) {
  packbuf_store *store = running->store;
  int waiting = 1;
  while (waiting && PACKBUF_I_LOAD(&running->starved)) {
    packbuf_i_locked(&store->lock);
    while (waiting && store->turns == turns)
      waiting = packbuf_i_wait(&store->changed, &store->lock, running->call.deadline);
    turns = store->turns;
    packbuf_i_unlocked(&store->lock);
    PACKBUF_I_STORE(&running->starved, 0);
    for (uint64_t i = 0; i < count; i++) {
      if ((running->task && packbuf_i_task_ended(running->task, &items[i])) || items[i].status != PACKBUF_QUOTA)
        continue;
      if (waiting) packbuf_i_run_stretch(running, &items[i], 1);
      else packbuf_i_item_settle(running, &items[i]);
    }
  }
}

static uint64_t packbuf_i_store_turns(packbuf_store *store) {
  uint64_t turns;
  packbuf_i_locked(&store->lock);
  turns = store->turns;
  packbuf_i_unlocked(&store->lock);
  return turns;
}

/* Runs a batch to its end. */
static void packbuf_i_run_items(packbuf_store *store, packbuf_operation operation, packbuf_item *items, uint64_t count,
                                uint64_t deadline, struct packbuf_i_task *task) {
  packbuf_i_running running;
  memset(&running, 0, sizeof running);
  running.call.operation = operation;
  running.call.deadline = deadline;
  running.call.holder = &store->holder;
  running.call.cancelled = packbuf_i_item_cancelled;
  running.call.done = packbuf_i_item_done;
  running.store = store;
  running.task = task;
  for (uint64_t at = 0, some; at < count; at += some) {
    const uint64_t turns = packbuf_i_store_turns(store);
    some = count - at < PACKBUF_I_STRETCH ? count - at : (uint64_t)PACKBUF_I_STRETCH;
    packbuf_i_run_stretch(&running, items + at, some);
    if (PACKBUF_I_LOAD(&running.starved)) packbuf_i_run_starved(&running, items + at, some, turns);
  }
}
