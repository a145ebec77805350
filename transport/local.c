/* transport/local.c: the store `local`: objects in a table of one process. It is the definition of what stores do:
 * what others do with atomic words, frames or calls of an engine stands here in a few lines each, under one lock.
 * Faults can be planned for its items.
 * May use: system, text (URIs), buddy, asked, driver.h; of a handle only `beside`'s driver and state. Must not know:
 * items' checks, leases of handles. */

/* One object, or room that is reserved for one. */
typedef struct packbuf_i_object_local {
  struct packbuf_i_object_local *next; /* of its bucket; of those that are given up */
  struct packbuf_i_local *owner;       /* whose quota it takes; NULL: nobody's */
  uint64_t page, pages;                /* where it lies in the slab */
  uint64_t readers;                    /* leases, and copies under way */
  uint64_t put, read, expires;         /* times; expires UINT64_MAX: never */
  int listed;                          /* in the table: it is the newest of its key */
  packbuf_stat stat;
  uint32_t hash;
  char key[PACKBUF_MAX_KEY + 1];
} packbuf_i_object_local;

/* What handles share that were opened beside each other. */
typedef struct packbuf_i_table {
  packbuf_i_lock lock;      /* guards all that follows, and all objects */
  packbuf_i_signal changed; /* memory came back, or the last reader of an object left */
  packbuf_allocator allocator;
  uint8_t *slab;
  uint64_t pages, generation, objects, most, handles, live, evicted, expired, recovered;
  packbuf_i_buddy buddy;
  void *buddy_memory;
  size_t buddy_size;
  packbuf_i_object_local **buckets;
  uint64_t mask;
  packbuf_i_object_local *given_up; /* what writers left behind that died of a fault */
} packbuf_i_table;

/* Faults of one inject, which batches that have begun keep. */
typedef struct packbuf_i_injected {
  uint64_t users, count;
  packbuf_fault *faults; /* behind it */
} packbuf_i_injected;

/* One handle. */
typedef struct packbuf_i_local {
  packbuf_i_table *table;
  uint64_t quota, used; /* bytes of objects that it put */
  uint64_t moved;
  packbuf_i_injected *plan; /* of faults; NULL: none */
  uint64_t seen;            /* items since it was made */
  char uri[PACKBUF_MAX_URI + 1];
} packbuf_i_local;

static uint8_t *packbuf_i_local_bytes(const packbuf_i_table *table, const packbuf_i_object_local *object) {
  return table->slab + object->page * PACKBUF_I_PAGE;
}

/* ---- objects, all with the lock held ---- */

static packbuf_i_object_local **packbuf_i_local_bucket(packbuf_i_table *table, uint32_t hash) {
  return &table->buckets[hash & table->mask];
}

/* An object is nobody's from here on. */
static void packbuf_i_local_disown(packbuf_i_object_local *object) {
  if (object->owner) object->owner->used -= object->pages * PACKBUF_I_PAGE;
  object->owner = NULL;
}

/* Gives an object's memory back. */
static void packbuf_i_local_free(packbuf_i_table *table, packbuf_i_object_local *object) {
  packbuf_i_local_disown(object);
  if (object->pages) packbuf_i_buddy_give(&table->buddy, object->page, object->pages);
  table->objects--;
  (void)packbuf_i_heap(&table->allocator, object, sizeof *object, 0);
  packbuf_i_signal_all(&table->changed);
}

/* Takes an object out of the table, and off its owner's quota: the handle that put it may be closed before its last
 * reader leaves, when its memory comes back. */
static void packbuf_i_local_retire(packbuf_i_table *table, packbuf_i_object_local *object) {
  packbuf_i_object_local **link = packbuf_i_local_bucket(table, object->hash);
  while (*link != object) link = &(*link)->next;
  *link = object->next;
  object->listed = 0;
  table->live--;
  packbuf_i_local_disown(object);
  if (object->readers) packbuf_i_signal_all(&table->changed);
  else packbuf_i_local_free(table, object);
}

/* The newest object of a key whose time is not over; NULL. */
static packbuf_i_object_local *packbuf_i_local_find(packbuf_i_table *table, const char *key, uint32_t hash) {
  packbuf_i_object_local *object = *packbuf_i_local_bucket(table, hash);
  while (object && (object->hash != hash || strcmp(object->key, key) != 0)) object = object->next;
  if (!object || object->expires == UINT64_MAX || packbuf_now() < object->expires) return object;
  table->expired++;
  packbuf_i_local_retire(table, object);
  return NULL;
}

/* Drops objects whose time is over, and what writers left that died. */
static void packbuf_i_local_sweep(packbuf_i_table *table) {
  const uint64_t now = packbuf_now();
  for (uint64_t i = 0; i <= table->mask; i++) {
    packbuf_i_object_local *object = table->buckets[i], *next;
    for (; object; object = next) {
      next = object->next;
      if (object->expires > now) continue;
      table->expired++;
      packbuf_i_local_retire(table, object);
    }
  }
  while (table->given_up) {
    packbuf_i_object_local *object = table->given_up;
    table->given_up = object->next;
    table->recovered++;
    packbuf_i_local_free(table, object);
  }
}

/* Drops the evictable object that nobody reads and that was read least recently; 0: there is none. */
static int packbuf_i_local_evict(packbuf_i_table *table) {
  packbuf_i_object_local *least = NULL;
  for (uint64_t i = 0; i <= table->mask; i++)
    for (packbuf_i_object_local *object = table->buckets[i]; object; object = object->next)
      if (object->stat.flags & PACKBUF_PUT_EVICTABLE && !object->readers && (!least || object->read < least->read))
        least = object;
  if (!least) return 0;
  table->evicted++;
  packbuf_i_local_retire(table, least);
  return 1;
}

/* Room for an object of `size`, now, charged to `owner` (NULL: to nobody): OK; FULL; QUOTA; OUT_OF_MEMORY. */
static packbuf_status packbuf_i_local_room(packbuf_i_table *table, packbuf_i_local *owner, uint64_t size,
                                           packbuf_i_object_local **object) {
  const uint64_t pages = packbuf_i_buddy_pages(size), bytes = pages * PACKBUF_I_PAGE;
  packbuf_i_object_local *made;
  if (owner && (bytes > owner->quota || owner->used > owner->quota - bytes)) return PACKBUF_QUOTA;
  if (table->objects >= table->most) return PACKBUF_FULL;
  made = (packbuf_i_object_local *)packbuf_i_heap(&table->allocator, NULL, 0, sizeof *made);
  if (!made) return PACKBUF_OUT_OF_MEMORY;
  made->pages = pages;
  if (pages && !packbuf_i_buddy_take(&table->buddy, pages, &made->page)) {
    (void)packbuf_i_heap(&table->allocator, made, sizeof *made, 0);
    return PACKBUF_FULL;
  }
  made->owner = owner;
  if (owner) owner->used += bytes;
  table->objects++;
  *object = made;
  return PACKBUF_OK;
}

/* The same by the deadline; evicts, and waits. CAPACITY, and QUOTA at once: it could never be had. */
static packbuf_status packbuf_i_local_wait_room(packbuf_i_table *table, packbuf_i_local *owner, uint64_t size,
                                                uint64_t deadline, packbuf_i_object_local **object) {
  packbuf_status status;
  if (packbuf_i_buddy_pages(size) > table->pages) return PACKBUF_CAPACITY;
  if (owner && packbuf_i_buddy_pages(size) * PACKBUF_I_PAGE > owner->quota) return PACKBUF_QUOTA;
  for (;;) {
    status = packbuf_i_local_room(table, owner, size, object);
    if (status != PACKBUF_FULL && status != PACKBUF_QUOTA) return status;
    packbuf_i_local_sweep(table);
    status = packbuf_i_local_room(table, owner, size, object);
    while (status == PACKBUF_FULL && packbuf_i_local_evict(table))
      status = packbuf_i_local_room(table, owner, size, object);
    if (status != PACKBUF_FULL && status != PACKBUF_QUOTA) return status;
    if (!packbuf_i_wait(&table->changed, &table->lock, deadline)) return status;
  }
}

/* Gives the pages behind the first `size` bytes back. */
static void packbuf_i_local_trim(packbuf_i_table *table, packbuf_i_object_local *object, uint64_t size) {
  const uint64_t pages = packbuf_i_buddy_pages(size);
  if (pages >= object->pages) return;
  packbuf_i_buddy_give(&table->buddy, object->page + pages, object->pages - pages);
  if (object->owner) object->owner->used -= (object->pages - pages) * PACKBUF_I_PAGE;
  object->pages = pages;
  packbuf_i_signal_all(&table->changed);
}

static void packbuf_i_local_stat(const packbuf_i_object_local *object, uint64_t now, packbuf_stat *stat) {
  *stat = object->stat;
  stat->age_ms = (now - object->put) / 1000000u;
  stat->left_ms = object->expires == UINT64_MAX ? UINT64_MAX
                  : object->expires > now       ? (object->expires - now) / 1000000u
                                                : 0;
  stat->leases = object->readers < UINT32_MAX ? (uint32_t)object->readers : UINT32_MAX;
}

/* The object of an item's key and generation, as get, stat and remove want it. */
static packbuf_status packbuf_i_local_wanted(packbuf_i_table *table, const packbuf_item *item,
                                             packbuf_i_object_local **object) {
  const uint32_t hash = (uint32_t)packbuf_i_hash_bytes((const uint8_t *)item->key, strlen(item->key));
  *object = packbuf_i_local_find(table, item->key, hash);
  if (!*object) return PACKBUF_NOT_FOUND;
  return item->generation && item->generation != (*object)->stat.generation ? PACKBUF_STALE : PACKBUF_OK;
}

/* ---- faults ---- */

/* What is planned for the item in turn; NULL: nothing. */
static const packbuf_fault *packbuf_i_local_fault(const packbuf_i_injected *plan, uint64_t at) {
  for (uint64_t i = 0; plan && i < plan->count; i++)
    if (plan->faults[i].at == at) return &plan->faults[i];
  return NULL;
}

/* One user less, under the lock: a batch that has begun under a plan ends under it. */
static void packbuf_i_faults_left(packbuf_i_table *table, packbuf_i_injected *plan) {
  if (plan && --plan->users == 0)
    (void)packbuf_i_heap(&table->allocator, plan, sizeof *plan + (size_t)plan->count * sizeof *plan->faults, 0);
}

static packbuf_status packbuf_i_local_inject(void *state, const packbuf_fault *faults, uint64_t count,
                                             packbuf_error *error) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_table *table = local->table;
  packbuf_i_injected *plan = NULL;
  if (count > 1u << 20) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "more than 2^20 faults");
  if (count) {
    plan = (packbuf_i_injected *)packbuf_i_heap(&table->allocator, NULL, 0,
                                                sizeof *plan + (size_t)count * sizeof *plan->faults);
    if (!plan) return packbuf_i_no_memory(error);
    plan->users = 1;
    plan->count = count;
    plan->faults = (packbuf_fault *)(void *)(plan + 1);
    memcpy(plan->faults, faults, (size_t)count * sizeof *faults);
  }
  packbuf_i_locked(&table->lock);
  packbuf_i_faults_left(table, local->plan);
  local->plan = plan;
  local->seen = 0;
  packbuf_i_unlocked(&table->lock);
  return PACKBUF_OK;
}

/* ---- put ---- */

/* Makes an object the newest of its key. */
static void packbuf_i_local_publish(packbuf_i_table *table, packbuf_i_object_local *object, packbuf_item *item) {
  packbuf_i_object_local *older = packbuf_i_local_find(table, object->key, object->hash);
  packbuf_i_object_local **bucket = packbuf_i_local_bucket(table, object->hash);
  object->stat.generation = ++table->generation;
  object->put = object->read = packbuf_now();
  object->expires = item->ttl_ms ? object->put + item->ttl_ms * (uint64_t)1000000u : UINT64_MAX;
  if (older) packbuf_i_local_retire(table, older);
  object->next = *bucket;
  *bucket = object;
  object->listed = 1;
  table->live++;
  packbuf_i_local_stat(object, object->put, &item->stat);
}

static void packbuf_i_local_describe_object(packbuf_i_object_local *object, const packbuf_item *item) {
  const packbuf_ref *about = item->about;
  memcpy(object->key, item->key, strlen(item->key) + 1);
  object->hash = (uint32_t)packbuf_i_hash_bytes((const uint8_t *)item->key, strlen(item->key));
  object->stat.length = item->size;
  object->stat.flags = item->flags;
  if (!about) return;
  object->stat.kind = about->kind;
  object->stat.head_length = about->head_length;
  object->stat.head_checksum = about->head_checksum;
  memcpy(object->stat.fingerprint, about->fingerprint, PACKBUF_FINGERPRINT);
}

/* The room that an item's bytes lie in, or are to be copied to. */
static packbuf_status packbuf_i_local_take_over(packbuf_i_local *local, const packbuf_call *call,
                                                const packbuf_item *item, packbuf_i_object_local **object, int *own) {
  *own = item->slice && item->slice->holder == call->holder;
  if (!*own) return packbuf_i_local_wait_room(local->table, local, item->size, call->deadline, object);
  *object = (packbuf_i_object_local *)(uintptr_t)item->slice->token;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_local_put(packbuf_i_local *local, packbuf_call *call, uint64_t index,
                                          const packbuf_fault *fault) {
  packbuf_i_table *table = local->table;
  packbuf_item *item = &call->items[index];
  const int dies = fault && fault->kind == PACKBUF_FAULT_SHORTEN;
  packbuf_i_object_local *object = NULL;
  packbuf_status status;
  int own = 0;
  packbuf_i_locked(&table->lock);
  status = packbuf_i_local_take_over(local, call, item, &object, &own);
  packbuf_i_unlocked(&table->lock);
  if (status) return status;
  if (!own && item->size) {
    memcpy(packbuf_i_local_bytes(table, object), item->from,
           (size_t)(dies && fault->argument < item->size ? fault->argument : item->size));
    (void)PACKBUF_I_ADD(&local->moved, item->size);
  }
  if (fault && fault->kind == PACKBUF_FAULT_CORRUPT && item->size)
    packbuf_i_local_bytes(table, object)[fault->argument % item->size] ^= 0xFF;
  status = call->cancelled(call, index) ? PACKBUF_CANCELLED : dies ? PACKBUF_DISCONNECTED : PACKBUF_OK;
  packbuf_i_locked(&table->lock);
  if (!status) {
    packbuf_i_local_describe_object(object, item);
    packbuf_i_local_trim(table, object, item->size);
    packbuf_i_local_publish(table, object, item);
  } else if (!own && dies) {
    object->next = table->given_up;
    table->given_up = object;
  } else if (!own) packbuf_i_local_free(table, object);
  packbuf_i_unlocked(&table->lock);
  return status;
}

/* ---- get ---- */

/* A reader leaves an object. */
static void packbuf_i_local_let_go(void *state, uint64_t token) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_object_local *object = (packbuf_i_object_local *)(uintptr_t)token;
  packbuf_i_locked(&local->table->lock);
  if (--object->readers == 0 && !object->listed) packbuf_i_local_free(local->table, object);
  else packbuf_i_signal_all(&local->table->changed);
  packbuf_i_unlocked(&local->table->lock);
}

/* Room of its own for an answer that does not lie in one run, or differs from the object. */
static packbuf_status packbuf_i_local_copy_out(packbuf_i_local *local, packbuf_call *call, packbuf_item *item,
                                               packbuf_i_object_local **object, uint64_t size) {
  packbuf_i_object_local *from = *object, *copy = NULL;
  packbuf_status status;
  packbuf_i_locked(&local->table->lock);
  status = packbuf_i_local_wait_room(local->table, NULL, size, call->deadline, &copy);
  if (!status) copy->readers = 1;
  packbuf_i_unlocked(&local->table->lock);
  if (!status)
    packbuf_i_item_copy(item, packbuf_i_local_bytes(local->table, from), size,
                        packbuf_i_local_bytes(local->table, copy));
  if (!status) (void)PACKBUF_I_ADD(&local->moved, size);
  packbuf_i_local_let_go(local, (uint64_t)(uintptr_t)from);
  *object = copy;
  return status;
}

/* Answers with a lease of an object that is being read. */
static packbuf_status packbuf_i_local_lease(packbuf_i_local *local, packbuf_call *call, packbuf_item *item,
                                            packbuf_i_object_local *object, const packbuf_i_wanted_bytes *asked,
                                            const packbuf_fault *fault) {
  const int corrupt = fault && fault->kind == PACKBUF_FAULT_CORRUPT && asked->size, copied = corrupt || !asked->run;
  packbuf_status status = PACKBUF_OK;
  if (copied) status = packbuf_i_local_copy_out(local, call, item, &object, asked->size);
  if (status) return status;
  item->lease.data = packbuf_i_local_bytes(local->table, object) + (copied ? 0 : asked->first);
  if (corrupt) packbuf_i_local_bytes(local->table, object)[fault->argument % asked->size] ^= 0xFF;
  item->lease.size = asked->size;
  item->lease.token = (uint64_t)(uintptr_t)object;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_local_get(packbuf_i_local *local, packbuf_call *call, uint64_t index,
                                          const packbuf_fault *fault) {
  packbuf_item *item = &call->items[index];
  packbuf_i_object_local *object;
  packbuf_i_wanted_bytes asked;
  packbuf_status status;
  packbuf_i_locked(&local->table->lock);
  status = packbuf_i_local_wanted(local->table, item, &object);
  if (!status) status = packbuf_i_item_asks(item, object->stat.length, &asked);
  if (!status) {
    object->read = packbuf_now();
    packbuf_i_local_stat(object, object->read, &item->stat);
    object->readers++;
  }
  packbuf_i_unlocked(&local->table->lock);
  if (status) return status;
  item->got = asked.size;
  if (fault && fault->kind == PACKBUF_FAULT_SHORTEN && fault->argument < asked.size) item->got = fault->argument;
  if (!item->into) return packbuf_i_local_lease(local, call, item, object, &asked, fault);
  packbuf_i_item_copy(item, packbuf_i_local_bytes(local->table, object), item->got, (uint8_t *)item->into);
  if (fault && fault->kind == PACKBUF_FAULT_CORRUPT && asked.size)
    ((uint8_t *)item->into)[fault->argument % asked.size] ^= 0xFF;
  (void)PACKBUF_I_ADD(&local->moved, item->got);
  packbuf_i_local_let_go(local, (uint64_t)(uintptr_t)object);
  return PACKBUF_OK;
}

/* ---- stat, remove ---- */

static packbuf_status packbuf_i_local_look(packbuf_i_local *local, packbuf_item *item) {
  packbuf_i_object_local *object;
  packbuf_status status;
  packbuf_i_locked(&local->table->lock);
  status = packbuf_i_local_wanted(local->table, item, &object);
  if (!status) packbuf_i_local_stat(object, packbuf_now(), &item->stat);
  packbuf_i_unlocked(&local->table->lock);
  return status;
}

/* Nobody finds the object from here on; waits for its readers. */
static packbuf_status packbuf_i_local_remove(packbuf_i_local *local, packbuf_call *call, packbuf_item *item) {
  packbuf_i_table *table = local->table;
  packbuf_i_object_local *object;
  packbuf_status status;
  packbuf_i_locked(&table->lock);
  status = packbuf_i_local_wanted(table, item, &object);
  if (!status) {
    packbuf_i_local_stat(object, packbuf_now(), &item->stat);
    object->readers++; /* so that it stays until we have looked */
    packbuf_i_local_retire(table, object);
    while (object->readers > 1 && packbuf_i_wait(&table->changed, &table->lock, call->deadline)) continue;
    if (object->readers > 1) status = PACKBUF_LEASED;
    if (--object->readers == 0) packbuf_i_local_free(table, object);
  }
  packbuf_i_unlocked(&table->lock);
  return status;
}

/* ---- the batch ---- */

/* What an item's fault does before the item is looked at. */
static packbuf_status packbuf_i_local_suffer(const packbuf_call *call, const packbuf_fault *fault) {
  uint64_t now, until;
  if (!fault) return PACKBUF_OK;
  if (fault->kind == PACKBUF_FAULT_FAIL) return (packbuf_status)fault->argument;
  if (fault->kind != PACKBUF_FAULT_DELAY) return PACKBUF_OK;
  now = packbuf_now();
  until = fault->argument < UINT64_MAX - now ? now + fault->argument : UINT64_MAX;
  packbuf_i_sleep_until(until < call->deadline ? until : call->deadline);
  return until < call->deadline ? PACKBUF_OK : PACKBUF_TIMEOUT;
}

static void packbuf_i_local_item(packbuf_i_local *local, packbuf_call *call, uint64_t index,
                                 const packbuf_fault *fault) {
  packbuf_item *item = &call->items[index];
  item->status = call->cancelled(call, index) ? PACKBUF_CANCELLED : packbuf_i_local_suffer(call, fault);
  if (!item->status) switch (call->operation) {
      case PACKBUF_PUT: item->status = packbuf_i_local_put(local, call, index, fault); break;
      case PACKBUF_GET: item->status = packbuf_i_local_get(local, call, index, fault); break;
      case PACKBUF_STAT: item->status = packbuf_i_local_look(local, item); break;
      default: item->status = packbuf_i_local_remove(local, call, item); break;
    }
  call->done(call, index);
}

/* Runs the items in order; one that is to be reordered waits until as many others have ended as its fault says. */
static void packbuf_i_local_run(void *state, packbuf_call *call) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_injected *plan;
  uint64_t base;
  packbuf_i_locked(&local->table->lock);
  base = local->seen;
  local->seen += call->count;
  plan = local->plan;
  if (plan) plan->users++;
  packbuf_i_unlocked(&local->table->lock);
  for (uint64_t i = 0; i < call->count; i++) {
    const packbuf_fault *fault = packbuf_i_local_fault(plan, base + i);
    if (!fault || fault->kind != PACKBUF_FAULT_REORDER) packbuf_i_local_item(local, call, i, fault);
    for (uint64_t k = 0; plan && k <= i; k++) { /* those whose turn has come, or comes at the end */
      const packbuf_fault *late = packbuf_i_local_fault(plan, base + k);
      const uint64_t turn = late && late->argument < call->count - 1 - k ? k + late->argument : call->count - 1;
      if (late && late->kind == PACKBUF_FAULT_REORDER && turn == i) packbuf_i_local_item(local, call, k, NULL);
    }
  }
  if (!plan) return;
  packbuf_i_locked(&local->table->lock);
  packbuf_i_faults_left(local->table, plan);
  packbuf_i_unlocked(&local->table->lock);
}

/* ---- slices ---- */

static void packbuf_i_local_give_back(void *state, uint64_t token) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_locked(&local->table->lock);
  packbuf_i_local_free(local->table, (packbuf_i_object_local *)(uintptr_t)token);
  packbuf_i_unlocked(&local->table->lock);
}

/* All or none: what was taken goes back before it waits, so that two who reserve do not wait for each other. */
static packbuf_status packbuf_i_local_reserve(void *state, const uint64_t *sizes, uint64_t count, uint64_t deadline,
                                              void **data, uint64_t *tokens, packbuf_error *error) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_table *table = local->table;
  packbuf_status status = PACKBUF_OK;
  uint64_t done = 0, pages = 0;
  int waiting = 1;
  for (uint64_t i = 0; i < count; i++)
    pages += packbuf_i_buddy_pages(sizes[i]) < table->pages ? packbuf_i_buddy_pages(sizes[i]) : table->pages;
  if (pages > table->pages) return packbuf_i_call_fail(error, PACKBUF_CAPACITY, "the store is not that large");
  if (pages * PACKBUF_I_PAGE > local->quota)
    return packbuf_i_call_fail(error, PACKBUF_QUOTA, "larger than the handle's quota");
  packbuf_i_locked(&table->lock);
  do {
    for (status = PACKBUF_OK; !status && done < count; done += !status) {
      packbuf_i_object_local *object;
      status = packbuf_i_local_wait_room(table, local, sizes[done], done ? PACKBUF_NO_WAIT : deadline, &object);
      if (status) break;
      data[done] = packbuf_i_local_bytes(table, object);
      tokens[done] = (uint64_t)(uintptr_t)object;
    }
    if (!status) break;
    while (done) packbuf_i_local_free(table, (packbuf_i_object_local *)(uintptr_t)tokens[--done]);
    waiting =
        (status == PACKBUF_FULL || status == PACKBUF_QUOTA) && packbuf_i_wait(&table->changed, &table->lock, deadline);
  } while (waiting);
  packbuf_i_unlocked(&table->lock);
  return status ? packbuf_i_call_fail(error, status, packbuf_status_text(status)) : PACKBUF_OK;
}

/* ---- looking after it ---- */

static packbuf_status packbuf_i_local_describe(void *state, packbuf_store_info *info, uint64_t deadline,
                                               packbuf_error *error) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_table *table = local->table;
  (void)deadline, (void)error;
  info->transport = "local";
  memcpy(info->uri, local->uri, sizeof info->uri);
  info->capabilities = PACKBUF_CAN_RANGES | PACKBUF_CAN_NEWEST | PACKBUF_CAN_SUPERSEDE | PACKBUF_CAN_REMOVE_NOW |
                       PACKBUF_CAN_IN_PLACE | PACKBUF_CAN_TTL | PACKBUF_CAN_EVICT | PACKBUF_CAN_QUOTA |
                       PACKBUF_CAN_LIST | PACKBUF_CAN_INJECT;
  packbuf_i_locked(&table->lock);
  info->size = table->pages * PACKBUF_I_PAGE;
  info->used = table->buddy.used * PACKBUF_I_PAGE;
  info->objects = table->live;
  info->most_objects = table->most;
  packbuf_i_unlocked(&table->lock);
  return PACKBUF_OK;
}

/* Lists are heaps while they are gathered, the largest generation first: of many objects the oldest `capacity` are told
 * without moving all of them for each. Puts one down where it belongs below `at`. */
static void packbuf_i_local_sink(packbuf_listed *listed, uint64_t count, uint64_t at, const packbuf_listed *one) {
  for (uint64_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && listed[child].stat.generation < listed[child + 1].stat.generation) child++;
    if (listed[child].stat.generation < one->stat.generation) break;
    listed[at] = listed[child];
  }
  listed[at] = *one;
}

/* Puts an object among the `count` listed of the smallest generations. */
static void packbuf_i_local_insert(packbuf_listed *listed, uint64_t capacity, uint64_t *count,
                                   const packbuf_i_object_local *object) {
  packbuf_listed one;
  uint64_t at = *count;
  if (at == capacity && listed[0].stat.generation < object->stat.generation) return;
  memcpy(one.key, object->key, sizeof one.key);
  packbuf_i_local_stat(object, packbuf_now(), &one.stat);
  if (at == capacity) {
    packbuf_i_local_sink(listed, capacity, 0, &one);
    return;
  }
  ++*count;
  for (; at && listed[(at - 1) / 2].stat.generation < one.stat.generation; at = (at - 1) / 2)
    listed[at] = listed[(at - 1) / 2];
  listed[at] = one;
}

/* The cursor is the largest generation that was listed. */
static packbuf_status packbuf_i_local_list(void *state, const char *prefix, uint64_t *cursor, packbuf_listed *listed,
                                           uint64_t capacity, uint64_t *count, uint64_t deadline,
                                           packbuf_error *error) {
  packbuf_i_table *table = ((packbuf_i_local *)state)->table;
  const size_t size = prefix ? strlen(prefix) : 0;
  (void)deadline, (void)error;
  *count = 0;
  if (!capacity) return PACKBUF_OK;
  packbuf_i_locked(&table->lock);
  packbuf_i_local_sweep(table);
  for (uint64_t i = 0; i <= table->mask; i++)
    for (const packbuf_i_object_local *object = table->buckets[i]; object; object = object->next)
      if (object->stat.generation > *cursor && strncmp(object->key, prefix ? prefix : "", size) == 0)
        packbuf_i_local_insert(listed, capacity, count, object);
  packbuf_i_unlocked(&table->lock);
  *cursor = *count == capacity ? listed[0].stat.generation : 0;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_local_collect(void *state, uint64_t deadline, uint64_t *left, packbuf_error *error) {
  packbuf_i_table *table = ((packbuf_i_local *)state)->table;
  (void)deadline, (void)error, (void)left;
  packbuf_i_locked(&table->lock);
  packbuf_i_local_sweep(table);
  packbuf_i_unlocked(&table->lock);
  return PACKBUF_OK;
}

static void packbuf_i_local_count(void *state, packbuf_counters *counters) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_table *table = local->table;
  counters->bytes_moved += PACKBUF_I_LOAD(&local->moved);
  packbuf_i_locked(&table->lock);
  counters->evicted += table->evicted;
  counters->expired += table->expired;
  counters->recovered += table->recovered;
  counters->store_used += table->buddy.used * PACKBUF_I_PAGE;
  counters->store_objects += table->live;
  packbuf_i_unlocked(&table->lock);
}

/* ---- opening and closing ---- */

static void packbuf_i_table_end(packbuf_i_table *table) {
  const packbuf_allocator allocator = table->allocator;
  for (uint64_t i = 0; table->buckets && i <= table->mask; i++)
    while (table->buckets[i]) packbuf_i_local_retire(table, table->buckets[i]);
  if (table->buckets) packbuf_i_local_sweep(table);
  (void)packbuf_i_heap(&allocator, table->buckets, ((size_t)table->mask + 1) * sizeof *table->buckets, 0);
  (void)packbuf_i_heap(&allocator, table->buddy_memory, table->buddy_size, 0);
  if (table->slab) (void)munmap(table->slab, (size_t)(table->pages * PACKBUF_I_PAGE));
  packbuf_i_signal_end(&table->changed);
  packbuf_i_lock_end(&table->lock);
  (void)packbuf_i_heap(&allocator, table, sizeof *table, 0);
}

static packbuf_i_table *packbuf_i_table_new(const packbuf_store_options *options, packbuf_error *error) {
  const packbuf_allocator allocator = options->allocator ? *options->allocator : packbuf_i_plain_heap;
  packbuf_i_table *table = (packbuf_i_table *)packbuf_i_heap(&allocator, NULL, 0, sizeof *table);
  const uint64_t size = options->size ? options->size : (uint64_t)256 << 20;
  void *slab;
  if (!table) return (void)packbuf_i_no_memory(error), (packbuf_i_table *)NULL;
  table->allocator = allocator;
  table->handles = 1;
  table->pages = packbuf_i_buddy_pages(size);
  table->most = options->objects     ? options->objects
                : size >> 14 < 1024  ? 1024
                : size >> 14 > 65536 ? 65536
                                     : size >> 14;
  table->generation = packbuf_i_wall_micros() << 12;
  for (table->mask = 1; table->mask < table->most; table->mask *= 2) continue;
  table->mask--;
  if (!packbuf_i_lock_start(&table->lock) || !packbuf_i_signal_start(&table->changed)) {
    (void)packbuf_i_heap(&allocator, table, sizeof *table, 0);
    (void)packbuf_i_system_fail(error, "no lock", errno);
    return NULL;
  }
  table->buckets = (packbuf_i_object_local **)packbuf_i_heap(&allocator, NULL, 0,
                                                             ((size_t)table->mask + 1) * sizeof *table->buckets);
  table->buddy_size = (size_t)packbuf_i_buddy_room(table->pages);
  table->buddy_memory = packbuf_i_heap(&allocator, NULL, 0, table->buddy_size);
  slab =
      mmap(NULL, (size_t)(table->pages * PACKBUF_I_PAGE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (slab != MAP_FAILED) table->slab = (uint8_t *)slab;
  if (!table->buckets || !table->buddy_memory || !table->slab) {
    packbuf_i_table_end(table);
    (void)packbuf_i_no_memory(error);
    return NULL;
  }
  packbuf_i_buddy_start(&table->buddy, table->pages, table->buddy_memory);
  return table;
}

static void packbuf_i_local_close(void *state) {
  packbuf_i_local *local = (packbuf_i_local *)state;
  packbuf_i_table *table = local->table;
  int last;
  packbuf_i_locked(&table->lock);
  for (uint64_t i = 0; i <= table->mask; i++)
    for (packbuf_i_object_local *object = table->buckets[i]; object; object = object->next)
      if (object->owner == local) packbuf_i_local_disown(object);
  for (packbuf_i_object_local *object = table->given_up; object; object = object->next)
    if (object->owner == local) packbuf_i_local_disown(object);
  packbuf_i_faults_left(table, local->plan);
  last = --table->handles == 0;
  packbuf_i_unlocked(&table->lock);
  {
    const packbuf_allocator allocator = table->allocator;
    if (last) packbuf_i_table_end(table);
    (void)packbuf_i_heap(&allocator, local, sizeof *local, 0);
  }
}

static packbuf_status packbuf_i_local_open(void **state, const char *uri, const packbuf_store_options *options,
                                           packbuf_error *error) {
  const packbuf_store *beside = options->beside;
  packbuf_store_options with = *options;
  packbuf_allocator allocator;
  packbuf_i_local *local;
  char base[PACKBUF_MAX_URI + 1];
  packbuf_status status = packbuf_i_uri_options(uri, &with, base, sizeof base, NULL, NULL, error);
  if (status) return status;
  if (beside && beside->driver->open != packbuf_i_local_open)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "beside is no handle of a local store");
  allocator = options->allocator ? *options->allocator : packbuf_i_plain_heap;
  local = (packbuf_i_local *)packbuf_i_heap(&allocator, NULL, 0, sizeof *local);
  if (!local) return packbuf_i_no_memory(error);
  memcpy(local->uri, base, sizeof base);
  local->quota = with.quota ? with.quota : UINT64_MAX;
  if (beside) {
    local->table = ((packbuf_i_local *)beside->state)->table;
    packbuf_i_locked(&local->table->lock);
    local->table->handles++;
    packbuf_i_unlocked(&local->table->lock);
  } else local->table = packbuf_i_table_new(&with, error);
  if (!local->table) {
    (void)packbuf_i_heap(&allocator, local, sizeof *local, 0);
    return error ? error->code : PACKBUF_OUT_OF_MEMORY;
  }
  *state = local;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_local_memory(void *state, packbuf_driver_memory *memory, packbuf_error *error) {
  const packbuf_i_table *table = ((packbuf_i_local *)state)->table;
  (void)error;
  memory->writable = table->slab;
  memory->readable = table->slab;
  memory->size = table->pages * PACKBUF_I_PAGE;
  return PACKBUF_OK;
}

static const packbuf_driver packbuf_i_local_driver = {sizeof(packbuf_driver),
                                                      "local",
                                                      packbuf_i_local_open,
                                                      packbuf_i_local_close,
                                                      packbuf_i_local_describe,
                                                      NULL,
                                                      NULL,
                                                      packbuf_i_local_reserve,
                                                      packbuf_i_local_give_back,
                                                      packbuf_i_local_run,
                                                      packbuf_i_local_let_go,
                                                      packbuf_i_local_list,
                                                      packbuf_i_local_collect,
                                                      packbuf_i_local_count,
                                                      packbuf_i_local_inject,
                                                      packbuf_i_local_memory,
                                                      0,
                                                      NULL};
