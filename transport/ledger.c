/* transport/ledger.c: who still wants a batch: books over a store, in one process. What is on them decides what gets
 * see; the store is asked afterwards, and never with the lock held.
 * May use: the public calls of stores, put, get, append (removal), system. Must not know: which store it is. */

typedef enum packbuf_i_entry_state {
  PACKBUF_I_ENTRY_NEW,     /* nothing is known of the key yet: a call is under way that will */
  PACKBUF_I_ENTRY_HELD,    /* to be read */
  PACKBUF_I_ENTRY_PENDING, /* released or aborted; its removal is not done */
  PACKBUF_I_ENTRY_GONE     /* and done: remembered, so that late gets do not find what a store may still answer */
} packbuf_i_entry_state;

/* A key, and its newest generation that is known here. The key's bytes lie behind it. */
typedef struct packbuf_i_booked {
  struct packbuf_i_booked *next;           /* of its bucket */
  struct packbuf_i_booked *before, *after; /* of a ring of those that are gone, the oldest behind its head */
  uint64_t hash, generation, bytes, since; /* since: packbuf_now when it came on the books */
  uint64_t reading, released;              /* objects of this generation that are out; that came back consumed */
  uint32_t users;                          /* calls under way that look at it again */
  uint32_t attempts;                       /* at its removal */
  uint8_t state, kind;                     /* kind: packbuf_object_kind */
  size_t size;                             /* of all of it */
} packbuf_i_booked;

#define PACKBUF_I_GONE_MOST 65536u

struct packbuf_ledger {
  packbuf_store *store;
  packbuf_ledger_options options;
  packbuf_i_lock lock; /* guards what follows */
  packbuf_i_booked **buckets;
  uint64_t mask, entries, gone_count;
  packbuf_i_booked gone;      /* the head of the ring */
  uint64_t under_way;         /* bytes of puts that have not ended */
  packbuf_ledger_state state; /* but oldest_ms */
};

static const char *packbuf_i_entry_key(const packbuf_i_booked *entry) { return (const char *)(entry + 1); }

static void *packbuf_i_ledger_heap(const packbuf_ledger *ledger, void *memory, size_t old_size, size_t new_size) {
  return packbuf_i_heap(&ledger->store->allocator, memory, old_size, new_size);
}

/* ---- the table, with the lock held ---- */

static uint64_t packbuf_i_ledger_hash(const char *key) {
  return packbuf_i_hash_bytes((const uint8_t *)key, strlen(key));
}

static packbuf_i_booked *packbuf_i_ledger_find(const packbuf_ledger *ledger, const char *key) {
  const uint64_t hash = packbuf_i_ledger_hash(key);
  packbuf_i_booked *entry = ledger->buckets[hash & ledger->mask];
  while (entry && (entry->hash != hash || strcmp(packbuf_i_entry_key(entry), key) != 0)) entry = entry->next;
  return entry;
}

/* Twice the buckets; where there is no memory for them the chains grow. */
static void packbuf_i_ledger_grow(packbuf_ledger *ledger) {
  const uint64_t count = (ledger->mask + 1) * 2;
  packbuf_i_booked **buckets;
  buckets = (packbuf_i_booked **)packbuf_i_ledger_heap(ledger, NULL, 0, (size_t)count * sizeof *buckets);
  if (!buckets) return;
  for (uint64_t i = 0; i <= ledger->mask; i++)
    for (packbuf_i_booked *entry = ledger->buckets[i], *next; entry; entry = next) {
      next = entry->next;
      entry->next = buckets[entry->hash & (count - 1)];
      buckets[entry->hash & (count - 1)] = entry;
    }
  (void)packbuf_i_ledger_heap(ledger, ledger->buckets, ((size_t)ledger->mask + 1) * sizeof *buckets, 0);
  ledger->buckets = buckets;
  ledger->mask = count - 1;
}

/* The entry of a key, made if there is none; NULL: no memory. */
static packbuf_i_booked *packbuf_i_ledger_entry(packbuf_ledger *ledger, const char *key) {
  packbuf_i_booked *entry = packbuf_i_ledger_find(ledger, key);
  const size_t length = strlen(key) + 1;
  if (entry) return entry;
  if (ledger->entries > ledger->mask) packbuf_i_ledger_grow(ledger);
  entry = (packbuf_i_booked *)packbuf_i_ledger_heap(ledger, NULL, 0, sizeof *entry + length);
  if (!entry) return NULL;
  entry->size = sizeof *entry + length;
  entry->hash = packbuf_i_ledger_hash(key);
  memcpy(entry + 1, key, length);
  entry->next = ledger->buckets[entry->hash & ledger->mask];
  ledger->buckets[entry->hash & ledger->mask] = entry;
  ledger->entries++;
  return entry;
}

static void packbuf_i_ledger_drop(packbuf_ledger *ledger, packbuf_i_booked *entry) {
  packbuf_i_booked **link = &ledger->buckets[entry->hash & ledger->mask];
  while (*link != entry) link = &(*link)->next;
  *link = entry->next;
  ledger->entries--;
  (void)packbuf_i_ledger_heap(ledger, entry, entry->size, 0);
}

/* ---- states, with the lock held ---- */

/* Takes an entry off the sums of its state. */
static void packbuf_i_entry_leave(packbuf_ledger *ledger, packbuf_i_booked *entry) {
  if (entry->state == PACKBUF_I_ENTRY_HELD) {
    ledger->state.batches--;
    ledger->state.bytes -= entry->bytes;
  }
  if (entry->state == PACKBUF_I_ENTRY_PENDING) {
    ledger->state.pending--;
    ledger->state.pending_bytes -= entry->bytes;
  }
  if (entry->state == PACKBUF_I_ENTRY_GONE) {
    ledger->gone_count--;
    entry->before->after = entry->after;
    entry->after->before = entry->before;
  }
  entry->state = PACKBUF_I_ENTRY_NEW;
}

static void packbuf_i_entry_pending(packbuf_ledger *ledger, packbuf_i_booked *entry) {
  packbuf_i_entry_leave(ledger, entry);
  entry->state = PACKBUF_I_ENTRY_PENDING;
  entry->attempts = 0;
  ledger->state.pending++;
  ledger->state.pending_bytes += entry->bytes;
}

/* Of those that are gone the newest are remembered. */
static void packbuf_i_entry_gone(packbuf_ledger *ledger, packbuf_i_booked *entry) {
  packbuf_i_booked *oldest;
  packbuf_i_entry_leave(ledger, entry);
  entry->state = PACKBUF_I_ENTRY_GONE;
  entry->after = &ledger->gone;
  entry->before = ledger->gone.before;
  entry->before->after = entry->after->before = entry;
  ledger->gone_count++;
  for (oldest = ledger->gone.after; ledger->gone_count > PACKBUF_I_GONE_MOST && oldest != &ledger->gone;) {
    packbuf_i_booked *next = oldest->after;
    if (!oldest->users && oldest != entry) {
      packbuf_i_entry_leave(ledger, oldest);
      packbuf_i_ledger_drop(ledger, oldest);
    }
    oldest = next;
  }
}

/* What a ref names is on the books from here on, in the place of any older generation. */
static void packbuf_i_entry_held(packbuf_ledger *ledger, packbuf_i_booked *entry, const packbuf_ref *ref) {
  packbuf_i_entry_leave(ledger, entry);
  entry->state = PACKBUF_I_ENTRY_HELD;
  entry->generation = ref->generation;
  entry->bytes = ref->length;
  entry->kind = ref->kind;
  entry->since = packbuf_now();
  entry->reading = entry->released = 0;
  ledger->state.batches++;
  ledger->state.bytes += entry->bytes;
}

/* A call no longer looks at an entry. One that came to nothing goes. */
static void packbuf_i_entry_unused(packbuf_ledger *ledger, packbuf_i_booked *entry) {
  if (--entry->users == 0 && entry->state == PACKBUF_I_ENTRY_NEW) packbuf_i_ledger_drop(ledger, entry);
}

/* What the books say of a generation of a key: OK, the store may be asked; NOT_FOUND; STALE. */
static packbuf_status packbuf_i_entry_says(const packbuf_i_booked *entry, uint64_t generation) {
  if (!entry || entry->state == PACKBUF_I_ENTRY_NEW || generation == 0 || generation > entry->generation)
    return PACKBUF_OK;
  if (generation < entry->generation && entry->generation != UINT64_MAX) return PACKBUF_STALE;
  return entry->state == PACKBUF_I_ENTRY_HELD ? PACKBUF_OK : PACKBUF_NOT_FOUND;
}

static packbuf_status packbuf_i_ledger_fail(packbuf_error *error, packbuf_status status, const char *key) {
  return packbuf_i_item_fail(error, status,
                             status == PACKBUF_STALE ? "another batch was put under this key"
                                                     : "the batch was released, aborted, or never on the books",
                             key, 0, PACKBUF_NOWHERE);
}

/* ---- opening and closing ---- */

PACKBUF_API packbuf_status packbuf_ledger_open(packbuf_store *store, const packbuf_ledger_options *options,
                                               packbuf_ledger **ledger, packbuf_error *error) {
  packbuf_ledger *made;
  const uint64_t count = 64;
  if (!ledger) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a place for the ledger must be given");
  *ledger = NULL;
  if (!store) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a store must be given");
  made = (packbuf_ledger *)packbuf_i_heap(&store->allocator, NULL, 0, sizeof *made);
  if (!made) return packbuf_i_no_memory(error);
  made->store = store;
  if (options) made->options = *options;
  if (!made->options.attempts) made->options.attempts = 3;
  if (!made->options.readings) made->options.readings = 1;
  made->gone.before = made->gone.after = &made->gone;
  made->mask = count - 1;
  made->buckets = (packbuf_i_booked **)packbuf_i_ledger_heap(made, NULL, 0, (size_t)count * sizeof *made->buckets);
  if (made->buckets && packbuf_i_lock_start(&made->lock)) {
    *ledger = made;
    return PACKBUF_OK;
  }
  if (made->buckets) (void)packbuf_i_ledger_heap(made, made->buckets, (size_t)count * sizeof *made->buckets, 0);
  (void)packbuf_i_heap(&store->allocator, made, sizeof *made, 0);
  return packbuf_i_no_memory(error);
}

PACKBUF_API packbuf_status packbuf_ledger_close(packbuf_ledger *ledger, packbuf_error *error) {
  packbuf_store *store;
  uint64_t reading;
  if (!ledger) return PACKBUF_OK;
  packbuf_i_locked(&ledger->lock);
  reading = ledger->state.reading;
  packbuf_i_unlocked(&ledger->lock);
  if (reading) return packbuf_i_call_fail(error, PACKBUF_LEASED, "batches of the ledger are being read");
  for (uint64_t i = 0; i <= ledger->mask; i++)
    while (ledger->buckets[i]) {
      packbuf_i_booked *entry = ledger->buckets[i];
      ledger->buckets[i] = entry->next;
      (void)packbuf_i_ledger_heap(ledger, entry, entry->size, 0);
    }
  (void)packbuf_i_ledger_heap(ledger, ledger->buckets, ((size_t)ledger->mask + 1) * sizeof *ledger->buckets, 0);
  packbuf_i_lock_end(&ledger->lock);
  store = ledger->store;
  (void)packbuf_i_heap(&store->allocator, ledger, sizeof *ledger, 0);
  return PACKBUF_OK;
}

/* ---- onto the books ---- */

PACKBUF_API packbuf_status packbuf_ledger_put(packbuf_ledger *ledger, const char *key, packbuf_batch *batch,
                                              const packbuf_put_options *options, packbuf_ref *ref,
                                              packbuf_error *error) {
  packbuf_i_booked *entry;
  packbuf_ref put;
  uint64_t room = 0, taken;
  packbuf_status status;
  if (!ledger || !batch)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a ledger and a batch must be given");
  status = packbuf_i_check_batch_key(key, 0, error);
  if (status == PACKBUF_OK) status = packbuf_measure(batch, &room, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_locked(&ledger->lock);
  taken = ledger->state.bytes + ledger->under_way;
  entry = NULL;
  if (ledger->options.most_bytes && (room > ledger->options.most_bytes || taken > ledger->options.most_bytes - room))
    status =
        packbuf_i_item_fail(error, PACKBUF_LIMIT, "more bytes than the ledger is to hold", key, 0, PACKBUF_NOWHERE);
  else {
    entry = packbuf_i_ledger_entry(ledger, key);
    if (!entry) status = packbuf_i_no_memory(error);
  }
  if (entry) {
    entry->users++;
    ledger->under_way += room;
  }
  packbuf_i_unlocked(&ledger->lock);
  if (!entry) return status;
  memset(&put, 0, sizeof put);
  status = packbuf_put(ledger->store, key, batch, options, &put, error);
  packbuf_i_locked(&ledger->lock);
  ledger->under_way -= room;
  /* of two puts at once the one with the larger generation stays */
  if (status == PACKBUF_OK && (entry->generation < put.generation || entry->generation == UINT64_MAX))
    packbuf_i_entry_held(ledger, entry, &put);
  packbuf_i_entry_unused(ledger, entry);
  packbuf_i_unlocked(&ledger->lock);
  if (status == PACKBUF_OK && ref) *ref = put;
  return status;
}

PACKBUF_API packbuf_status packbuf_ledger_adopt(packbuf_ledger *ledger, const packbuf_ref *ref, uint64_t deadline,
                                                packbuf_error *error) {
  packbuf_i_booked *entry;
  packbuf_ref found;
  packbuf_item item;
  packbuf_status status = packbuf_i_check_ref(ref, error);
  if (status != PACKBUF_OK) return status;
  found = *ref;
  memset(&item, 0, sizeof item);
  item.key = ref->key;
  item.generation = ref->generation;
  status = packbuf_batch_stat(ledger->store, &item, 1, deadline, error);
  if (status != PACKBUF_OK) return status;
  found.generation = item.stat.generation;
  found.length = item.stat.length;
  found.kind = item.stat.kind;
  packbuf_i_locked(&ledger->lock);
  entry = packbuf_i_ledger_entry(ledger, ref->key);
  if (!entry) status = packbuf_i_no_memory(error);
  else {
    status = packbuf_i_entry_says(entry, found.generation);
    if (status != PACKBUF_OK) packbuf_i_ledger_fail(error, status, ref->key);
    else if (entry->generation != found.generation) packbuf_i_entry_held(ledger, entry, &found);
  }
  packbuf_i_unlocked(&ledger->lock);
  return status;
}

/* ---- reading ---- */

/* An object came from the store: whether the books still let it through, and count it. `counted`: the generation under
 * which it was counted before the store was asked; 0: it was not. */
static packbuf_status packbuf_i_ledger_got(packbuf_ledger *ledger, packbuf_i_booked *entry, const packbuf_ref *ref,
                                           uint64_t counted) {
  const packbuf_status status = packbuf_i_entry_says(entry, ref->generation);
  if (status != PACKBUF_OK) return status;
  if (entry->state != PACKBUF_I_ENTRY_HELD || entry->generation != ref->generation)
    packbuf_i_entry_held(ledger, entry, ref); /* newer than what is known here */
  if (counted != ref->generation) entry->reading++;
  ledger->state.reading++;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_ledger_read(packbuf_ledger *ledger, const packbuf_ref *ref,
                                            const packbuf_wanted *wanted, const packbuf_get_options *options,
                                            packbuf_object *object, packbuf_error *error) {
  packbuf_i_booked *entry;
  uint64_t counted = 0;
  packbuf_status status;
  memset(object, 0, sizeof *object);
  object->status = status = packbuf_i_check_ref(ref, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_locked(&ledger->lock);
  status = packbuf_i_entry_says(packbuf_i_ledger_find(ledger, ref->key), ref->generation);
  entry = status == PACKBUF_OK ? packbuf_i_ledger_entry(ledger, ref->key) : NULL;
  if (entry) {
    entry->users++;
    if (entry->state == PACKBUF_I_ENTRY_HELD && (ref->generation == 0 || ref->generation == entry->generation)) {
      counted = entry->generation; /* it is not freed meanwhile */
      entry->reading++;
    }
  }
  packbuf_i_unlocked(&ledger->lock);
  if (status != PACKBUF_OK) status = packbuf_i_ledger_fail(error, status, ref->key);
  else if (!entry) status = packbuf_i_no_memory(error);
  if (status == PACKBUF_OK) status = packbuf_get_many(ledger->store, ref, 1, wanted, options, object, error);
  if (entry) {
    int refused = 0;
    packbuf_i_locked(&ledger->lock);
    if (status == PACKBUF_OK) {
      status = packbuf_i_ledger_got(ledger, entry, &object->ref, counted);
      refused = status != PACKBUF_OK;
    }
    /* what was counted for an object that did not come, or came of another generation */
    if (counted && entry->generation == counted && (status != PACKBUF_OK || object->ref.generation != counted) &&
        entry->reading)
      entry->reading--;
    packbuf_i_entry_unused(ledger, entry);
    packbuf_i_unlocked(&ledger->lock);
    if (refused) packbuf_i_ledger_fail(error, status, ref->key);
  }
  if (status != PACKBUF_OK) packbuf_object_release(object);
  object->status = status;
  return status;
}

PACKBUF_API packbuf_status packbuf_ledger_get(packbuf_ledger *ledger, const packbuf_ref *ref,
                                              const packbuf_get_options *options, packbuf_object *object,
                                              packbuf_error *error) {
  return packbuf_i_ledger_read(ledger, ref, NULL, options, object, error);
}

PACKBUF_API packbuf_status packbuf_ledger_get_select(packbuf_ledger *ledger, const packbuf_ref *ref,
                                                     const packbuf_wanted *wanted, const packbuf_get_options *options,
                                                     packbuf_object *object, packbuf_error *error) {
  memset(object, 0, sizeof *object);
  object->status = PACKBUF_INVALID_ARGUMENT;
  if (!wanted) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "what is wanted must be given");
  return packbuf_i_ledger_read(ledger, ref, wanted, options, object, error);
}

/* ---- off the books ---- */

/* So many milliseconds from now, but never after the deadline. */
static uint64_t packbuf_i_ledger_in(uint64_t ms, uint64_t deadline) {
  const uint64_t then = packbuf_deadline_in(ms);
  return then < deadline ? then : deadline;
}

/* By when a removal that waits for no lease has ended: at once, where no network is needed; where an engine's leases
 * would be waited for, in the time that its answer takes; never after the deadline. */
static uint64_t packbuf_i_ledger_soon(const packbuf_ledger *ledger, uint64_t deadline) {
  const unsigned can = ledger->store->capabilities;
  if (can & PACKBUF_CAN_IN_PLACE) return PACKBUF_NO_WAIT;
  return packbuf_i_ledger_in(can & PACKBUF_CAN_REMOVE_NOW ? 1000 : 20, deadline);
}

/* A removal that is only delayed is tried again. */
static int packbuf_i_ledger_later(packbuf_status status) {
  return status == PACKBUF_OK || status == PACKBUF_LEASED || status == PACKBUF_TIMEOUT;
}

/* Tries to remove what is pending, once; the caller counted itself among its users, and no longer is. *freed: it is
 * gone. LEASED and any other error leave it pending. */
static packbuf_status packbuf_i_ledger_try(packbuf_ledger *ledger, packbuf_i_booked *entry, uint32_t flags,
                                           uint64_t deadline, int *freed, packbuf_error *error) {
  packbuf_ref ref;
  packbuf_status status;
  *freed = 0;
  memset(&ref, 0, sizeof ref);
  packbuf_i_locked(&ledger->lock);
  packbuf_i_copy_text(ref.key, packbuf_i_entry_key(entry));
  ref.generation = entry->generation;
  ref.kind = entry->kind;
  status = entry->state == PACKBUF_I_ENTRY_PENDING ? PACKBUF_OK : PACKBUF_NOT_FOUND;
  if (status == PACKBUF_OK) entry->attempts++;
  packbuf_i_unlocked(&ledger->lock);
  if (status == PACKBUF_OK) {
    status = packbuf_i_remove(ledger->store, &ref, flags, packbuf_i_ledger_soon(ledger, deadline), error);
    *freed = status == PACKBUF_OK;
  } else status = PACKBUF_OK; /* somebody else did it */
  packbuf_i_locked(&ledger->lock);
  if (*freed && entry->state == PACKBUF_I_ENTRY_PENDING && entry->generation == ref.generation)
    packbuf_i_entry_gone(ledger, entry);
  packbuf_i_entry_unused(ledger, entry);
  packbuf_i_unlocked(&ledger->lock);
  return status;
}

/* An object comes back. Its entry, with one user more, when the batch is to go with it; else NULL. */
static packbuf_i_booked *packbuf_i_ledger_back(packbuf_ledger *ledger, packbuf_object *object, int consumed) {
  packbuf_i_booked *entry, *last = NULL;
  packbuf_i_locked(&ledger->lock);
  if (ledger->state.reading) ledger->state.reading--;
  entry = packbuf_i_ledger_find(ledger, object->ref.key);
  if (entry && entry->state == PACKBUF_I_ENTRY_HELD && entry->generation == object->ref.generation && entry->reading) {
    entry->reading--;
    entry->released += consumed != 0;
    if (consumed && entry->reading == 0 && entry->released >= ledger->options.readings && !ledger->options.retain)
      last = entry;
  }
  if (last) {
    packbuf_i_entry_pending(ledger, last);
    last->users++;
  }
  packbuf_i_unlocked(&ledger->lock);
  packbuf_object_release(object);
  return last;
}

PACKBUF_API packbuf_status packbuf_ledger_release(packbuf_ledger *ledger, packbuf_object *object, int *freed,
                                                  packbuf_error *error) {
  packbuf_i_booked *entry;
  packbuf_status status;
  int gone = 0;
  if (freed) *freed = 0;
  if (!object->inner) return PACKBUF_OK;
  entry = packbuf_i_ledger_back(ledger, object, 1);
  if (!entry) return PACKBUF_OK;
  status = packbuf_i_ledger_try(ledger, entry, 0, PACKBUF_FOREVER, &gone, error);
  if (freed) *freed = gone;
  return packbuf_i_ledger_later(status) ? PACKBUF_OK : status;
}

PACKBUF_API void packbuf_ledger_put_back(packbuf_ledger *ledger, packbuf_object *object) {
  if (object->inner) (void)packbuf_i_ledger_back(ledger, object, 0);
}

PACKBUF_API packbuf_status packbuf_ledger_abort(packbuf_ledger *ledger, const packbuf_ref *ref, packbuf_error *error) {
  packbuf_i_booked *entry;
  packbuf_status status = packbuf_i_check_ref(ref, error);
  int gone = 0;
  if (status != PACKBUF_OK) return status;
  packbuf_i_locked(&ledger->lock);
  entry = packbuf_i_ledger_entry(ledger, ref->key);
  if (!entry) status = packbuf_i_no_memory(error);
  else if (entry->state != PACKBUF_I_ENTRY_NEW && ref->generation && ref->generation < entry->generation)
    status =
        packbuf_i_ledger_fail(error, entry->generation == UINT64_MAX ? PACKBUF_NOT_FOUND : PACKBUF_STALE, ref->key);
  else if (entry->state == PACKBUF_I_ENTRY_HELD && (!ref->generation || ref->generation == entry->generation)) {
    packbuf_i_entry_pending(ledger, entry);
    entry->users++;
  } else if (entry->state != PACKBUF_I_ENTRY_PENDING || (ref->generation && ref->generation != entry->generation)) {
    /* not on the books: remembered, whatever generation it is */
    if (entry->state != PACKBUF_I_ENTRY_GONE) packbuf_i_entry_gone(ledger, entry);
    if (ref->generation > entry->generation) entry->generation = ref->generation;
    if (!entry->generation) entry->generation = UINT64_MAX;
    status = packbuf_i_ledger_fail(error, PACKBUF_NOT_FOUND, ref->key);
  } else entry = NULL; /* pending already */
  packbuf_i_unlocked(&ledger->lock);
  if (status != PACKBUF_OK || !entry) return status;
  status = packbuf_i_ledger_try(ledger, entry, 0, PACKBUF_FOREVER, &gone, error);
  return packbuf_i_ledger_later(status) ? PACKBUF_OK : status;
}

/* ---- many at a time ---- */

/* Whether an entry is one of those that a call is about. */
typedef int (*packbuf_i_entry_is)(const packbuf_i_booked *entry, uint64_t argument);

static int packbuf_i_entry_is_pending(const packbuf_i_booked *entry, uint64_t most) {
  return entry->state == PACKBUF_I_ENTRY_PENDING && entry->attempts <= most;
}

static int packbuf_i_entry_is_unread(const packbuf_i_booked *entry, uint64_t since) {
  return entry->state == PACKBUF_I_ENTRY_HELD && entry->reading == 0 && entry->since <= since;
}

/* The entries that are so, as an array of the heap, each with one user more. Returns how many; UINT64_MAX: no memory.
 */
static uint64_t packbuf_i_ledger_collect(packbuf_ledger *ledger, packbuf_i_entry_is is, uint64_t argument,
                                         packbuf_i_booked ***list) {
  uint64_t count = 0, filled = 0;
  packbuf_i_locked(&ledger->lock);
  *list = NULL;
  for (uint64_t i = 0; i <= ledger->mask; i++)
    for (packbuf_i_booked *entry = ledger->buckets[i]; entry; entry = entry->next) count += is(entry, argument) != 0;
  if (count) *list = (packbuf_i_booked **)packbuf_i_ledger_heap(ledger, NULL, 0, (size_t)count * sizeof **list);
  for (uint64_t i = 0; *list && i <= ledger->mask; i++)
    for (packbuf_i_booked *entry = ledger->buckets[i]; entry; entry = entry->next) {
      if (!is(entry, argument)) continue;
      entry->users++;
      (*list)[filled++] = entry;
    }
  packbuf_i_unlocked(&ledger->lock);
  return count && !*list ? UINT64_MAX : count;
}

/* Frees such an array, and takes back what was counted for those from `done` on. */
static void packbuf_i_ledger_collected(packbuf_ledger *ledger, packbuf_i_booked **list, uint64_t done, uint64_t count) {
  packbuf_i_locked(&ledger->lock);
  for (uint64_t i = done; i < count; i++) packbuf_i_entry_unused(ledger, list[i]);
  packbuf_i_unlocked(&ledger->lock);
  if (list) (void)packbuf_i_ledger_heap(ledger, list, (size_t)count * sizeof *list, 0);
}

/* 1: no more is begun. One that waits for nothing has no such time. */
static int packbuf_i_ledger_late(uint64_t deadline) { return deadline != PACKBUF_NO_WAIT && packbuf_now() >= deadline; }

/* Tries all pending removals of at most so many attempts before, to the deadline. */
static packbuf_status packbuf_i_ledger_retry(packbuf_ledger *ledger, uint64_t attempts, uint32_t flags,
                                             uint64_t deadline, uint64_t *freed, packbuf_error *error) {
  packbuf_i_booked **list;
  const uint64_t count = packbuf_i_ledger_collect(ledger, packbuf_i_entry_is_pending, attempts, &list);
  packbuf_status status, first = PACKBUF_OK;
  uint64_t i = 0;
  if (count == UINT64_MAX) return packbuf_i_no_memory(error);
  for (; i < count && (i == 0 || !packbuf_i_ledger_late(deadline)); i++) {
    packbuf_error why;
    int gone = 0;
    status = packbuf_i_ledger_try(ledger, list[i], flags, deadline, &gone, &why);
    *freed += (uint64_t)gone;
    if (packbuf_i_ledger_later(status) || first != PACKBUF_OK) continue;
    first = status;
    if (error) *error = why;
  }
  packbuf_i_ledger_collected(ledger, list, i, count);
  return first;
}

/* What others removed goes from the books. Not of stores where looking renews leases. */
static packbuf_status packbuf_i_ledger_reconcile(packbuf_ledger *ledger, uint64_t deadline, packbuf_error *error) {
  packbuf_i_booked **list;
  packbuf_item *items;
  uint64_t count;
  if (!(ledger->store->capabilities & PACKBUF_CAN_REMOVE_NOW)) return PACKBUF_OK;
  count = packbuf_i_ledger_collect(ledger, packbuf_i_entry_is_unread, UINT64_MAX, &list);
  if (count == UINT64_MAX) return packbuf_i_no_memory(error);
  if (count == 0) return PACKBUF_OK;
  items = (packbuf_item *)packbuf_i_ledger_heap(ledger, NULL, 0, (size_t)count * sizeof *items);
  packbuf_i_locked(&ledger->lock);
  for (uint64_t i = 0; items && i < count; i++) {
    items[i].key = packbuf_i_entry_key(list[i]);
    items[i].generation =
        list[i]->generation; /* it may be another by the time of the answer, which then says nothing */
  }
  packbuf_i_unlocked(&ledger->lock);
  if (items) (void)packbuf_batch_stat(ledger->store, items, count, packbuf_i_ledger_in(1000, deadline), NULL);
  packbuf_i_locked(&ledger->lock);
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_booked *entry = list[i];
    if (items && (items[i].status == PACKBUF_NOT_FOUND || items[i].status == PACKBUF_STALE) &&
        entry->state == PACKBUF_I_ENTRY_HELD && entry->generation == items[i].generation && entry->reading == 0)
      packbuf_i_entry_gone(ledger, entry);
    packbuf_i_entry_unused(ledger, entry);
  }
  packbuf_i_unlocked(&ledger->lock);
  if (items) (void)packbuf_i_ledger_heap(ledger, items, (size_t)count * sizeof *items, 0);
  packbuf_i_ledger_collected(ledger, list, count, count);
  return items ? PACKBUF_OK : packbuf_i_no_memory(error);
}

PACKBUF_API packbuf_status packbuf_ledger_gc(packbuf_ledger *ledger, uint64_t max_age_ms, uint64_t deadline,
                                             uint64_t *freed, packbuf_error *error) {
  const uint64_t now = packbuf_now(), age = max_age_ms < now / 1000000u ? max_age_ms * 1000000u : now;
  packbuf_i_booked **list = NULL;
  uint64_t count = 0, gone = 0, i = 0;
  packbuf_status status = packbuf_i_ledger_retry(ledger, ledger->options.attempts, 0, deadline, &gone, error);
  if (status == PACKBUF_OK) status = packbuf_i_ledger_reconcile(ledger, deadline, error);
  if (status == PACKBUF_OK && max_age_ms) {
    count = packbuf_i_ledger_collect(ledger, packbuf_i_entry_is_unread, now - age, &list);
    if (count == UINT64_MAX) status = packbuf_i_no_memory(error), count = 0;
  }
  for (; i < count && !packbuf_i_ledger_late(deadline); i++) {
    packbuf_error why;
    packbuf_status one;
    int removed = 0;
    packbuf_i_locked(&ledger->lock);
    if (packbuf_i_entry_is_unread(list[i], now - age)) packbuf_i_entry_pending(ledger, list[i]);
    packbuf_i_unlocked(&ledger->lock);
    one = packbuf_i_ledger_try(ledger, list[i], 0, deadline, &removed, &why);
    gone += (uint64_t)removed;
    if (packbuf_i_ledger_later(one) || status != PACKBUF_OK) continue;
    status = one;
    if (error) *error = why;
  }
  packbuf_i_ledger_collected(ledger, list, i, count);
  if (freed) *freed = gone;
  return status;
}

PACKBUF_API packbuf_status packbuf_ledger_drain(packbuf_ledger *ledger, uint64_t deadline, packbuf_error *error) {
  for (;;) {
    const uint64_t soon = packbuf_deadline_in(50);
    uint64_t freed = 0, left;
    const packbuf_status status =
        packbuf_i_ledger_retry(ledger, UINT32_MAX, (uint32_t)PACKBUF_REMOVE_FORCE, deadline, &freed, error);
    if (status == PACKBUF_OUT_OF_MEMORY) return status;
    packbuf_i_locked(&ledger->lock);
    left = ledger->state.pending;
    packbuf_i_unlocked(&ledger->lock);
    if (!left) return PACKBUF_OK;
    if (packbuf_now() >= deadline) {
      packbuf_i_call_fail(error, PACKBUF_TIMEOUT, "removals are still pending");
      if (error) error->row = left;
      return PACKBUF_TIMEOUT;
    }
    packbuf_i_sleep_until(soon < deadline ? soon : deadline);
  }
}

PACKBUF_API packbuf_status packbuf_ledger_describe(packbuf_ledger *ledger, packbuf_ledger_state *state,
                                                   packbuf_error *error) {
  uint64_t oldest;
  (void)error;
  packbuf_i_locked(&ledger->lock);
  oldest = packbuf_now();
  *state = ledger->state;
  state->oldest_ms = oldest;
  for (uint64_t i = 0; i <= ledger->mask; i++)
    for (const packbuf_i_booked *entry = ledger->buckets[i]; entry; entry = entry->next)
      if (entry->state == PACKBUF_I_ENTRY_HELD && entry->since < oldest) oldest = entry->since;
  state->oldest_ms = (state->oldest_ms - oldest) / 1000000u;
  packbuf_i_unlocked(&ledger->lock);
  return PACKBUF_OK;
}
