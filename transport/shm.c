/* transport/shm.c: the store "shm": objects of all processes of a machine, in one file of a memory file system. Readers
 * have them in place; room is waited for in steps, looking for the dead each time.
 * May use: driver.h, the other shm rooms, asked, text (URI options). Must not know: handles. */

#if PACKBUF_I_SHM

enum {
  PACKBUF_I_SHM_ALL_LOCKS = 67, /* of a handle */
  PACKBUF_I_SHM_COPY_ROOM = 64  /* before the bytes of a lease that is a copy: its size */
};
/* Of a lease's token: it is such a copy, at the rest as an address. */
#define PACKBUF_I_SHM_COPIED ((uint64_t)1 << 63)

/* ---- opening and closing ---- */

/* The options of its own: dir=FOLDER and mode=OCTAL. */
static packbuf_status packbuf_i_shm_option(void *context, const packbuf_i_uri_option *option) {
  packbuf_i_shm_plan *const plan = (packbuf_i_shm_plan *)context;
  if (strcmp(option->name, "dir") == 0) {
    memcpy(plan->folder, option->value, strlen(option->value) + 1);
    return plan->folder[0] == '/' ? PACKBUF_OK : PACKBUF_INVALID_ARGUMENT;
  }
  if (strcmp(option->name, "mode") == 0) {
    uint64_t mode;
    if (!packbuf_i_parse_digits(option->value, strlen(option->value), 8, 0777, &mode)) return PACKBUF_INVALID_ARGUMENT;
    if ((mode & 0600) != 0600) return PACKBUF_INVALID_ARGUMENT;
    plan->mode = (uint32_t)mode;
    plan->mode_given = 1;
    return PACKBUF_OK;
  }
  return PACKBUF_NOT_FOUND;
}

/* "/dev/shm/packbuf.NAME", and ".making" behind it. */
static packbuf_status packbuf_i_shm_paths(packbuf_i_shm_plan *plan, const char *base, packbuf_error *error) {
  packbuf_i_uri uri;
  packbuf_i_line line = packbuf_i_line_in(plan->path, sizeof plan->path);
  packbuf_status status = packbuf_i_uri_start(&uri, base, error);
  if (status != PACKBUF_OK) return status;
  if (uri.rest != base + uri.scheme + 1 || uri.rest_size == 0 || uri.rest_size > 200 ||
      memchr(uri.rest, '/', uri.rest_size))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT,
                          "a shm store is named shm:NAME, of 1 to 200 bytes without '/'", uri.scheme + 1,
                          PACKBUF_NOWHERE);
  for (const char *c = plan->folder; *c; c++) packbuf_i_line_character(&line, *c);
  for (const char *c = "/packbuf."; *c; c++) packbuf_i_line_character(&line, *c);
  for (size_t i = 0; i < uri.rest_size; i++) packbuf_i_line_character(&line, uri.rest[i]);
  (void)packbuf_i_line_close(&line);
  memcpy(plan->draft, plan->path, line.length);
  memcpy(plan->draft + line.length, ".making", 8);
  return PACKBUF_OK;
}

/* Numbers that were not given, and the limits of those that were. */
static packbuf_status packbuf_i_shm_numbers(packbuf_i_shm_plan *plan, const packbuf_store_options *options,
                                            packbuf_error *error) {
  const uint64_t size = options->size;
  uint64_t slots = options->objects;
  if (!slots) {
    slots = size >> 14;
    if (slots < 1024) slots = 1024;
    if (slots > 65536) slots = 65536;
  }
  plan->sessions = options->sessions ? options->sessions : 256;
  if (size > (uint64_t)PACKBUF_I_SHM_MOST_UNITS * PACKBUF_I_SHM_UNIT || slots > PACKBUF_I_SHM_MOST_SLOTS ||
      plan->sessions > PACKBUF_I_SHM_SESSIONS)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "size, objects or sessions of the store are too large");
  plan->size = packbuf_i_shm_up(size, PACKBUF_I_SHM_UNIT);
  plan->slots = (uint32_t)packbuf_i_shm_up(slots, 64);
  plan->must_exist = options->must_exist || !size;
  plan->now = packbuf_now() - packbuf_i_shm_clock_offset();
  plan->generation = packbuf_i_wall_micros() << 12;
  if (!plan->generation) plan->generation = 4096;
  return packbuf_i_secret_find(options->secret, options->secret_size, plan->secret, &plan->secret_size, error);
}

/* Frees the handle; what it held in the store was given back before, or is the parent's. */
static void packbuf_i_shm_discard(packbuf_i_shm *shm, int locks) {
  const packbuf_allocator allocator = shm->allocator;
  packbuf_i_shm_unmap(shm);
  if (shm->fd >= 0) (void)close(shm->fd);
  for (int i = 0; i < locks && i < 64; i++) packbuf_i_lock_end(&shm->stripes[i]);
  if (locks > 64) packbuf_i_lock_end(&shm->sweeping);
  if (locks > 65) packbuf_i_lock_end(&shm->lock);
  if (locks > 66) packbuf_i_lock_end(&shm->telling);
  packbuf_i_fork_word_end(shm->here);
  (void)packbuf_i_heap(&allocator, shm->local, shm->facts.slots * sizeof *shm->local, 0);
  (void)packbuf_i_heap(&allocator, shm, sizeof *shm, 0);
}

/* What the handle has beside the file. Returns how many of its locks there are. */
static int packbuf_i_shm_equip(packbuf_i_shm *shm) {
  int locks = 0;
  while (locks < 64 && packbuf_i_lock_start(&shm->stripes[locks])) locks++;
  if (locks == 64) locks += packbuf_i_lock_start(&shm->sweeping);
  if (locks == 65) locks += packbuf_i_lock_start(&shm->lock);
  if (locks == 66) locks += packbuf_i_lock_start(&shm->telling);
  shm->local = (uint32_t *)packbuf_i_heap(&shm->allocator, NULL, 0, shm->facts.slots * sizeof *shm->local);
  shm->here = packbuf_i_fork_word();
  shm->clock_offset = packbuf_i_shm_clock_offset();
  return locks;
}

/* Searches begin at places of their own, so that sessions do not fight for the same units and slots. */
static void packbuf_i_shm_begin(packbuf_i_shm *shm, uint64_t quota) {
  shm->next_unit = shm->facts.units / shm->facts.sessions * shm->session;
  shm->next_slot = shm->facts.slots / shm->facts.sessions * shm->session;
  shm->evicted = PACKBUF_I_LOAD(&shm->header->evicted);
  shm->expired = PACKBUF_I_LOAD(&shm->header->expired);
  shm->recovered = PACKBUF_I_LOAD(&shm->header->recovered);
  shm->quota = quota ? quota : UINT64_MAX;
}

static packbuf_status packbuf_i_shm_open(void **state, const char *uri, const packbuf_store_options *options,
                                         packbuf_error *error) {
  packbuf_store_options wanted = *options;
  const packbuf_allocator allocator = options->allocator ? *options->allocator : packbuf_i_plain_heap;
  packbuf_i_shm_plan plan;
  packbuf_i_shm *shm;
  packbuf_status status;
  int locks = 0;
  memset(&plan, 0, sizeof plan);
  plan.mode = 0600;
  memcpy(plan.folder, "/dev/shm", 9);
  shm = (packbuf_i_shm *)packbuf_i_heap(&allocator, NULL, 0, sizeof *shm);
  if (!shm) return packbuf_i_no_memory(error);
  shm->allocator = allocator;
  shm->fd = -1;
  status = packbuf_i_uri_options(uri, &wanted, shm->uri, sizeof shm->uri, packbuf_i_shm_option, &plan, error);
  if (status == PACKBUF_OK) status = packbuf_i_shm_paths(&plan, shm->uri, error);
  if (status == PACKBUF_OK) status = packbuf_i_shm_numbers(&plan, &wanted, error);
  if (status == PACKBUF_OK) status = packbuf_i_shm_open_file(&plan, &shm->fd, &shm->facts, error);
  if (status == PACKBUF_OK) {
    shm->read_only = wanted.read_only;
    shm->log = wanted.log;
    shm->log_context = wanted.log_context;
    locks = packbuf_i_shm_equip(shm);
    if (locks < PACKBUF_I_SHM_ALL_LOCKS || !shm->local) status = packbuf_i_no_memory(error);
  }
  if (status == PACKBUF_OK) status = packbuf_i_shm_map(shm, error);
  memcpy(shm->path, plan.path, sizeof shm->path);
  if (status == PACKBUF_OK && PACKBUF_I_LOAD(&shm->header->closed))
    status = packbuf_i_call_fail(error, PACKBUF_DISCONNECTED, "the store is being taken away");
  if (status == PACKBUF_OK)
    status = packbuf_i_shm_join(shm, wanted.name ? wanted.name : program_invocation_short_name, error);
  if (status == PACKBUF_OK) {
    packbuf_i_shm_begin(shm, wanted.quota);
    *state = shm;
  } else packbuf_i_shm_discard(shm, locks);
  return status;
}

/* In a child after fork all of the session is the parent's: only memory goes. */
static void packbuf_i_shm_close(void *state) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  if (!shm->here || PACKBUF_I_LOAD(shm->here)) packbuf_i_shm_leave(shm);
  packbuf_i_shm_discard(shm, PACKBUF_I_SHM_ALL_LOCKS);
}

/* ---- room ---- */

/* Bytes of this session's CLAIMED and LIVE slots. */
static uint64_t packbuf_i_shm_counted(packbuf_i_shm *shm) {
  const uint64_t putter = packbuf_i_shm_putter(shm);
  uint64_t units = 0;
  for (uint32_t slot = 0; slot < shm->facts.slots; slot++) {
    const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
    const packbuf_i_shm_slot *const record = &shm->slots[slot];
    if (packbuf_i_shm_claimed(shm, slot) || (packbuf_i_shm_phase(word) == PACKBUF_I_SHM_LIVE &&
                                             __atomic_load_n(&record->putter, __ATOMIC_RELAXED) == putter))
      units += packbuf_i_shm_extent_units(PACKBUF_I_LOAD(&record->extent));
  }
  return units * PACKBUF_I_SHM_UNIT;
}

/* Charges bytes to the quota. The running sum knows of nothing that was freed, so before it refuses, slots are counted
 * (`pending`: those on their way, whose extents may or may not be seen). 0: it is used up. */
static int packbuf_i_shm_charge(packbuf_i_shm *shm, uint64_t bytes) {
  int fits;
  if (shm->quota == UINT64_MAX) return 1;
  packbuf_i_locked(&shm->lock);
  if (bytes > shm->quota || shm->charged > shm->quota - bytes) shm->charged = packbuf_i_shm_counted(shm) + shm->pending;
  fits = bytes <= shm->quota && shm->charged <= shm->quota - bytes;
  if (fits) shm->charged += bytes, shm->pending += bytes;
  packbuf_i_unlocked(&shm->lock);
  return fits;
}

static void packbuf_i_shm_charged(packbuf_i_shm *shm, uint64_t bytes, int used) {
  if (shm->quota == UINT64_MAX) return;
  packbuf_i_locked(&shm->lock);
  shm->pending -= bytes;
  if (!used) shm->charged = shm->charged > bytes ? shm->charged - bytes : 0;
  packbuf_i_unlocked(&shm->lock);
}

/* Claims all or none; tokens are slot + 1. `bytes`: of their units. *slots: it is slots that lack. */
static packbuf_status packbuf_i_shm_claim_all(packbuf_i_shm *shm, const uint64_t *sizes, uint64_t count, uint64_t bytes,
                                              uint64_t *tokens, int *slots) {
  uint64_t got = 0;
  if (!packbuf_i_shm_charge(shm, bytes)) return PACKBUF_QUOTA;
  for (; got < count; got++) {
    const uint32_t slot = packbuf_i_shm_claim(shm, sizes[got], slots);
    if (slot == PACKBUF_I_SHM_NONE) break;
    tokens[got] = (uint64_t)slot + 1;
  }
  packbuf_i_shm_charged(shm, bytes, got == count);
  if (got == count) return PACKBUF_OK;
  while (got--) packbuf_i_shm_drop_quietly(shm, (uint32_t)(tokens[got] - 1)), tokens[got] = 0;
  return PACKBUF_FULL;
}

/* What a wait for room goes through: the dead are looked for at most every 20 ms, all objects every tenth time. */
typedef struct packbuf_i_shm_patience {
  uint64_t deadline, next;
  unsigned times;
  int tidied, waited;
  packbuf_call *call; /* who may cancel; NULL: nobody */
  uint64_t index;
} packbuf_i_shm_patience;

static packbuf_i_shm_patience packbuf_i_shm_patient(uint64_t deadline, packbuf_call *call, uint64_t index) {
  packbuf_i_shm_patience patience;
  memset(&patience, 0, sizeof patience);
  patience.deadline = deadline;
  patience.call = call;
  patience.index = index;
  return patience;
}

/* After a try failed with `why`: makes room, or waits for some; `seen` is what `freed` was before the try, `units` what
 * eviction should free (0: no eviction). OK: try again. */
static packbuf_status packbuf_i_shm_again(packbuf_i_shm *shm, packbuf_i_shm_patience *patience, uint32_t seen,
                                          uint64_t units, packbuf_status why) {
  const uint64_t now = packbuf_now();
  if (patience->call && patience->call->cancelled(patience->call, patience->index)) return PACKBUF_CANCELLED;
  if (PACKBUF_I_LOAD(&shm->header->closed)) return PACKBUF_DISCONNECTED;
  if (!patience->tidied && now >= patience->next) {
    packbuf_i_shm_bury(shm);
    packbuf_i_shm_sweep(shm, patience->times++ % 10 == 0);
    patience->next = now + 20000000;
    patience->tidied = 1;
    return PACKBUF_OK;
  }
  if (units && packbuf_i_shm_evict(shm, units)) return PACKBUF_OK;
  if (patience->deadline != PACKBUF_NO_WAIT && !patience->waited) {
    patience->waited = 1;
    (void)__atomic_fetch_add(&shm->waits, 1, __ATOMIC_RELAXED);
  }
  if (!packbuf_i_shm_wait(shm, seen, patience->deadline)) return why;
  patience->tidied = 0;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_shm_reserve_all(packbuf_i_shm *shm, const uint64_t *sizes, uint64_t count,
                                                packbuf_i_shm_patience *patience, uint64_t *tokens,
                                                packbuf_error *error) {
  uint64_t units = 0, wanted;
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t some = packbuf_i_shm_units(sizes[i]);
    if (some > shm->facts.units - units) units = UINT64_MAX;
    if (units == UINT64_MAX) break;
    units += some;
  }
  if (units == UINT64_MAX || count > shm->facts.slots)
    return packbuf_i_call_fail(error, PACKBUF_CAPACITY, "larger than the store");
  if (units * PACKBUF_I_SHM_UNIT > shm->quota)
    return packbuf_i_call_fail(error, PACKBUF_QUOTA, "larger than the handle's quota");
  wanted = units > shm->facts.units / 64 ? units : shm->facts.units / 64;
  for (;;) {
    const uint32_t seen = PACKBUF_I_LOAD(&shm->header->freed);
    int slots = 0;
    packbuf_status status = packbuf_i_shm_claim_all(shm, sizes, count, units * PACKBUF_I_SHM_UNIT, tokens, &slots),
                   next;
    if (status == PACKBUF_OK) return status;
    next = packbuf_i_shm_again(shm, patience, seen, status == PACKBUF_FULL ? wanted : 0, status);
    if (next != PACKBUF_OK)
      return packbuf_i_call_fail(error, next,
                                 next == PACKBUF_QUOTA  ? "the handle's quota is used up"
                                 : next != PACKBUF_FULL ? "given up while waiting for room"
                                 : slots ? "the store has no free object (options.objects): remove or release some"
                                         : "the store has no run of free memory of this length: remove or release "
                                           "objects, or wait");
  }
}

/* Where a slot's bytes begin in the data, and how many it has room for. 0: its extent is damaged. */
static int packbuf_i_shm_room(const packbuf_i_shm *shm, uint32_t slot, uint64_t *at, uint64_t *room) {
  const uint64_t extent = PACKBUF_I_LOAD(&shm->slots[slot].extent);
  const uint64_t first = packbuf_i_shm_extent_first(extent), units = packbuf_i_shm_extent_units(extent);
  *at = first * PACKBUF_I_SHM_UNIT;
  *room = units * PACKBUF_I_SHM_UNIT;
  return first < shm->facts.units && units <= shm->facts.units - first;
}

static void packbuf_i_shm_give_back(void *state, uint64_t token) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  if (token && token <= shm->facts.slots && packbuf_i_shm_claimed(shm, (uint32_t)(token - 1)))
    packbuf_i_shm_drop(shm, (uint32_t)(token - 1));
}

static packbuf_status packbuf_i_shm_reserve(void *state, const uint64_t *sizes, uint64_t count, uint64_t deadline,
                                            void **data, uint64_t *tokens, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  packbuf_i_shm_patience patience = packbuf_i_shm_patient(deadline, NULL, 0);
  uint8_t *base;
  packbuf_status status;
  if (shm->read_only) return packbuf_i_call_fail(error, PACKBUF_READ_ONLY, "the store was opened for reading alone");
  base = packbuf_i_shm_writable(shm);
  if (!base) return packbuf_i_system_fail(error, "the store's data cannot be mapped for writing", ENOMEM);
  status = packbuf_i_shm_reserve_all(shm, sizes, count, &patience, tokens, error);
  for (uint64_t i = 0; status == PACKBUF_OK && i < count; i++) {
    uint64_t at, room;
    if (!packbuf_i_shm_room(shm, (uint32_t)(tokens[i] - 1), &at, &room) || room < sizes[i])
      status = packbuf_i_call_fail(error, PACKBUF_PROTOCOL, "the store's tables are damaged");
    else data[i] = base + at;
  }
  if (status == PACKBUF_PROTOCOL)
    for (uint64_t i = 0; i < count; i++) packbuf_i_shm_give_back(shm, tokens[i]);
  return status;
}

/* ---- stat ---- */

/* The object that an item names, pinned. An object whose time is over is dropped here. */
static packbuf_status packbuf_i_shm_look(packbuf_i_shm *shm, const packbuf_i_shm_key *key, uint64_t generation,
                                         uint64_t now, uint32_t *slot) {
  const packbuf_status status = packbuf_i_shm_find(shm, key, slot);
  uint64_t newest;
  if (status != PACKBUF_OK) return status;
  newest = PACKBUF_I_LOAD(&shm->slots[*slot].generation);
  if (packbuf_i_shm_over(&shm->slots[*slot], now)) {
    (void)packbuf_i_shm_retire_below(shm, key, newest + 1);
    packbuf_i_shm_unpin(shm, *slot);
    PACKBUF_I_ADD(&shm->header->expired, 1u);
    return PACKBUF_NOT_FOUND;
  }
  if (!generation || generation == newest) return PACKBUF_OK;
  packbuf_i_shm_unpin(shm, *slot);
  return PACKBUF_STALE;
}

/* ---- put ---- */

/* What a batch knows of the clock. */
typedef struct packbuf_i_shm_clock {
  uint64_t now;   /* the root's clock */
  uint64_t bytes; /* copied since it was read */
  uint64_t items; /* begun since then */
} packbuf_i_shm_clock;

enum { PACKBUF_I_SHM_CLOCK_BYTES = 1 << 18, PACKBUF_I_SHM_CLOCK_ITEMS = 16 };

/* Key, generation and cell; waits for a cell. now: of the batch; after a wait the clock is read again. */
static packbuf_status packbuf_i_shm_name_item(packbuf_i_shm *shm, uint32_t slot, const packbuf_i_shm_key *key,
                                              const packbuf_item *item, uint64_t now,
                                              packbuf_i_shm_patience *patience) {
  packbuf_i_shm_about about;
  about.length = item->size;
  about.ttl = (uint64_t)item->ttl_ms * 1000000u;
  about.flags = item->flags;
  about.ref = item->about;
  if (patience->call->cancelled(patience->call, patience->index)) return PACKBUF_CANCELLED;
  for (;;) {
    const uint32_t seen = PACKBUF_I_LOAD(&shm->header->freed);
    packbuf_status status;
    about.now = patience->next ? packbuf_i_shm_now(shm) : now;
    if (packbuf_i_shm_name(shm, slot, key, &about)) return PACKBUF_OK;
    status = packbuf_i_shm_again(shm, patience, seen, 0, PACKBUF_FULL);
    if (status != PACKBUF_OK) return status;
  }
}

static packbuf_status packbuf_i_shm_put(packbuf_i_shm *shm, packbuf_call *call, uint64_t index,
                                        packbuf_i_shm_clock *clock) {
  packbuf_item *const item = &call->items[index];
  packbuf_i_shm_patience patience = packbuf_i_shm_patient(call->deadline, call, index);
  const packbuf_i_shm_key key = packbuf_i_shm_key_of(shm, item->key);
  uint8_t *base;
  uint64_t at, room, token = 0;
  uint32_t slot;
  const int own = item->slice && item->slice->holder == call->holder; /* reserved here */
  packbuf_status status = PACKBUF_OK;
  if (shm->read_only) return PACKBUF_READ_ONLY;
  base = packbuf_i_shm_writable(shm);
  if (!base) return PACKBUF_SYSTEM;
  if (!own) {
    status = packbuf_i_shm_reserve_all(shm, &item->size, 1, &patience, &token, NULL);
    if (status != PACKBUF_OK) clock->items = PACKBUF_I_SHM_CLOCK_ITEMS; /* it may have waited for that */
    if (status != PACKBUF_OK) return status;
  } else token = item->slice->token;
  slot = (uint32_t)(token - 1);
  if (!packbuf_i_shm_claimed(shm, slot)) return PACKBUF_INVALID_ARGUMENT; /* the slice was given back */
  if (!packbuf_i_shm_room(shm, slot, &at, &room)) status = PACKBUF_PROTOCOL;
  else if (room < item->size) status = own ? PACKBUF_INVALID_ARGUMENT : PACKBUF_PROTOCOL;
  packbuf_i_shm_expect(shm, key.hash);
  if (status == PACKBUF_OK && !own && item->size) memcpy(base + at, item->from, (size_t)item->size);
  if (status == PACKBUF_OK) status = packbuf_i_shm_name_item(shm, slot, &key, item, clock->now, &patience);
  if (patience.next) clock->items = PACKBUF_I_SHM_CLOCK_ITEMS; /* it may have waited */
  if (status != PACKBUF_OK) {                                  /* what the caller reserved stays the caller's */
    if (!own) packbuf_i_shm_drop(shm, slot);
    return status;
  }
  if (!own) (void)__atomic_fetch_add(&shm->copied, item->size, __ATOMIC_RELAXED);
  packbuf_i_shm_trim_units(shm, slot, packbuf_i_shm_units(item->size));
  packbuf_i_shm_stat(shm, slot, shm->slots[slot].put_at, &item->stat);
  item->stat.leases = 0;
  (void)packbuf_i_shm_publish(shm, slot, &key);
  return PACKBUF_OK;
}

/* ---- get ---- */

/* A lease on bytes that do not lie end to end: a copy. */
static packbuf_status packbuf_i_shm_copied_lease(packbuf_i_shm *shm, packbuf_item *item, const uint8_t *from,
                                                 uint64_t sum) {
  uint8_t *copy;
  if (sum > SIZE_MAX - PACKBUF_I_SHM_COPY_ROOM) return PACKBUF_OUT_OF_MEMORY;
  copy = (uint8_t *)packbuf_i_heap(&shm->allocator, NULL, 0, (size_t)sum + PACKBUF_I_SHM_COPY_ROOM);
  if (!copy) return PACKBUF_OUT_OF_MEMORY;
  packbuf_i_store64(copy, sum + PACKBUF_I_SHM_COPY_ROOM);
  packbuf_i_item_copy(item, from, sum, copy + PACKBUF_I_SHM_COPY_ROOM);
  item->lease.data = copy + PACKBUF_I_SHM_COPY_ROOM;
  item->lease.size = sum;
  item->lease.token = PACKBUF_I_SHM_COPIED | (uint64_t)(uintptr_t)copy;
  return PACKBUF_OK;
}

/* Answers from a pinned object; *keep: the pin is the lease's now. */
static packbuf_status packbuf_i_shm_answer(packbuf_i_shm *shm, packbuf_item *item, uint32_t slot, int *keep) {
  const uint64_t length = __atomic_load_n(&shm->slots[slot].length, __ATOMIC_RELAXED); /* once: it is checked */
  uint64_t at, room;
  packbuf_i_wanted_bytes asked;
  packbuf_status status;
  if (!packbuf_i_shm_room(shm, slot, &at, &room) || room < length) return PACKBUF_PROTOCOL;
  status = packbuf_i_item_asks(item, length, &asked);
  if (status != PACKBUF_OK) return status;
  if (item->into) {
    packbuf_i_item_copy(item, shm->data + at, asked.size, (uint8_t *)item->into);
    (void)__atomic_fetch_add(&shm->copied, asked.size, __ATOMIC_RELAXED);
  } else if (asked.run) {
    item->lease.data = shm->data + at + asked.first;
    item->lease.size = asked.size;
    item->lease.token = (uint64_t)slot + 1;
    *keep = 1;
  } else {
    status = packbuf_i_shm_copied_lease(shm, item, shm->data + at, asked.size);
    if (status == PACKBUF_OK) (void)__atomic_fetch_add(&shm->copied, asked.size, __ATOMIC_RELAXED);
  }
  if (status == PACKBUF_OK) item->got = asked.size;
  return status;
}

static packbuf_status packbuf_i_shm_get(packbuf_i_shm *shm, packbuf_item *item, uint64_t now) {
  const packbuf_i_shm_key key = packbuf_i_shm_key_of(shm, item->key);
  uint32_t slot;
  int keep = 0;
  packbuf_status status = packbuf_i_shm_look(shm, &key, item->generation, now, &slot);
  if (status != PACKBUF_OK) return status;
  packbuf_i_shm_stat(shm, slot, now, &item->stat);
  status = packbuf_i_shm_answer(shm, item, slot, &keep);
  if (item->stat.flags & PACKBUF_PUT_EVICTABLE) /* the others do not need it */
    __atomic_store_n(&shm->slots[slot].read_at, packbuf_i_shm_now(shm), __ATOMIC_RELAXED);
  if (!keep) packbuf_i_shm_unpin(shm, slot);
  return status;
}

static void packbuf_i_shm_let_go(void *state, uint64_t token) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  if (token & PACKBUF_I_SHM_COPIED) {
    uint8_t *const copy = (uint8_t *)(uintptr_t)(token & ~PACKBUF_I_SHM_COPIED);
    (void)packbuf_i_heap(&shm->allocator, copy, (size_t)packbuf_i_load64(copy), 0);
  } else if (token && token <= shm->facts.slots) packbuf_i_shm_unpin(shm, (uint32_t)(token - 1));
}

/* ---- stat, remove ---- */

static packbuf_status packbuf_i_shm_stat_item(packbuf_i_shm *shm, packbuf_item *item, uint64_t now) {
  const packbuf_i_shm_key key = packbuf_i_shm_key_of(shm, item->key);
  uint32_t slot;
  const packbuf_status status = packbuf_i_shm_look(shm, &key, item->generation, now, &slot);
  if (status != PACKBUF_OK) return status;
  packbuf_i_shm_stat(shm, slot, now, &item->stat);
  packbuf_i_shm_unpin(shm, slot);
  item->stat.leases = packbuf_i_shm_pins(shm, slot); /* without the one of this look */
  return PACKBUF_OK;
}

/* Nobody finds it from here on. What is to be waited for is kept in the item: the slot in lease.token, its word in
 * got. */
static packbuf_status packbuf_i_shm_remove_item(packbuf_i_shm *shm, packbuf_item *item, uint64_t now) {
  const packbuf_i_shm_key key = packbuf_i_shm_key_of(shm, item->key);
  packbuf_status status;
  uint32_t slot;
  if (shm->read_only) return PACKBUF_READ_ONLY;
  status = packbuf_i_shm_look(shm, &key, item->generation, now, &slot);
  if (status != PACKBUF_OK) return status;
  packbuf_i_shm_stat(shm, slot, now, &item->stat);
  item->lease.token = (uint64_t)slot + 1;
  item->got = PACKBUF_I_LOAD(&shm->words[slot]);
  (void)packbuf_i_shm_retire_below(shm, &key, item->stat.generation + 1);
  packbuf_i_shm_unpin(shm, slot);
  item->stat.leases = packbuf_i_shm_pins(shm, slot);
  return PACKBUF_OK;
}

/* 1: the memory of the object that a slot held under that word came back, or does just now. */
static int packbuf_i_shm_gone(packbuf_i_shm *shm, uint32_t slot, uint64_t word) {
  const uint64_t now = PACKBUF_I_LOAD(&shm->words[slot]);
  return now >> 32 != word >> 32 || packbuf_i_shm_phase(now) != PACKBUF_I_SHM_RETIRED;
}

/* Waits to the deadline for the leases of what an item removed. */
static packbuf_status packbuf_i_shm_await(packbuf_i_shm *shm, packbuf_call *call, uint64_t index) {
  packbuf_item *const item = &call->items[index];
  const uint32_t slot = (uint32_t)(item->lease.token - 1);
  const uint64_t word = item->got;
  packbuf_status status = PACKBUF_OK;
  item->lease.token = item->got = 0;
  for (int round = 0; !packbuf_i_shm_gone(shm, slot, word); round++) {
    const uint32_t seen = PACKBUF_I_LOAD(&shm->header->freed);
    if (round == 0) packbuf_i_shm_bury(shm); /* leases of the dead do not count */
    packbuf_i_shm_try_free(shm, slot);
    if (packbuf_i_shm_gone(shm, slot, word)) break;
    if (call->cancelled(call, index)) status = PACKBUF_CANCELLED;
    else if (!packbuf_i_shm_wait(shm, seen, call->deadline)) status = PACKBUF_LEASED;
    if (status != PACKBUF_OK) break;
    if (round % 8 == 7) packbuf_i_shm_bury(shm);
  }
  return status == PACKBUF_CANCELLED ? PACKBUF_LEASED : status; /* removed it is */
}

/* ---- batches ---- */

static void packbuf_i_shm_end(packbuf_call *call, uint64_t index, packbuf_status status) {
  packbuf_item *const item = &call->items[index];
  item->status = status;
  if (status != PACKBUF_OK && status != PACKBUF_LEASED) memset(&item->stat, 0, sizeof item->stat);
  call->done(call, index);
}

/* What keeps an item from being begun. The clock is read once for so many items, or for bytes that take some 10 us. */
static packbuf_status packbuf_i_shm_hindered(packbuf_i_shm *shm, packbuf_call *call, uint64_t index,
                                             packbuf_i_shm_clock *clock) {
  if (call->cancelled(call, index)) return PACKBUF_CANCELLED;
  if (index == 0 || clock->items == PACKBUF_I_SHM_CLOCK_ITEMS || clock->bytes >= PACKBUF_I_SHM_CLOCK_BYTES) {
    const uint64_t now = packbuf_now();
    clock->now = now - shm->clock_offset;
    clock->bytes = clock->items = 0;
    __atomic_store_n(&shm->sessions[shm->session].called_at, clock->now, __ATOMIC_RELAXED);
    if (PACKBUF_I_LOAD(&shm->header->closed)) return PACKBUF_DISCONNECTED;
    if (call->deadline != PACKBUF_NO_WAIT && now > call->deadline) return PACKBUF_TIMEOUT;
  }
  clock->items++;
  if (call->operation == PACKBUF_PUT) clock->bytes += call->items[index].size;
  return PACKBUF_OK;
}

static void packbuf_i_shm_run(void *state, packbuf_call *call) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  packbuf_status status = PACKBUF_OK;
  packbuf_i_shm_clock clock = {0, 0, 0};
  for (uint64_t i = 0; i < call->count; i++) {
    packbuf_item *const item = &call->items[i];
    if (status != PACKBUF_DISCONNECTED && status != PACKBUF_TIMEOUT)
      status = packbuf_i_shm_hindered(shm, call, i, &clock);
    memset(&item->lease, 0, sizeof item->lease);
    memset(&item->stat, 0, sizeof item->stat);
    item->got = 0;
    if (status != PACKBUF_OK) {
      packbuf_i_shm_end(call, i, status);
      continue;
    }
    switch (call->operation) {
      case PACKBUF_PUT: status = packbuf_i_shm_put(shm, call, i, &clock); break;
      case PACKBUF_GET: status = packbuf_i_shm_get(shm, item, clock.now); break;
      case PACKBUF_STAT: status = packbuf_i_shm_stat_item(shm, item, clock.now); break;
      case PACKBUF_REMOVE: status = packbuf_i_shm_remove_item(shm, item, clock.now); break;
      default: status = PACKBUF_UNSUPPORTED_OPERATION; break;
    }
    if (call->operation != PACKBUF_REMOVE || status != PACKBUF_OK) packbuf_i_shm_end(call, i, status);
    status = PACKBUF_OK;
  }
  if (call->operation != PACKBUF_REMOVE) return;
  for (uint64_t i = 0; i < call->count; i++) /* all are gone for readers; now their memory */
    if (call->items[i].lease.token) packbuf_i_shm_end(call, i, packbuf_i_shm_await(shm, call, i));
}

/* ---- looking after the store ---- */

/* One slot of a list: 1 when it holds the newest object of a key with that prefix. */
static int packbuf_i_shm_list_slot(packbuf_i_shm *shm, uint32_t slot, const char *prefix, size_t size, uint64_t now,
                                   packbuf_listed *listed) {
  const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
  packbuf_i_shm_key key;
  uint32_t newest;
  int is;
  if (packbuf_i_shm_phase(word) != PACKBUF_I_SHM_LIVE || packbuf_i_shm_over(&shm->slots[slot], now)) return 0;
  if (!packbuf_i_shm_copy_key(shm, slot, word, listed->key, &key)) return 0;
  if (key.size < size || memcmp(key.text, prefix, size) != 0 || !packbuf_i_key_valid(key.text)) return 0;
  if (packbuf_i_shm_find(shm, &key, &newest) != PACKBUF_OK) return 0;
  is = newest == slot;
  if (is) packbuf_i_shm_stat(shm, slot, now, &listed->stat);
  packbuf_i_shm_unpin(shm, newest);
  if (is) listed->stat.leases = packbuf_i_shm_pins(shm, slot);
  return is;
}

/* The cursor is the next slot: an object stays in its slot, so what stays is met once. */
static packbuf_status packbuf_i_shm_list(void *state, const char *prefix, uint64_t *cursor, packbuf_listed *listed,
                                         uint64_t capacity, uint64_t *count, uint64_t deadline, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  const uint64_t now = packbuf_i_shm_now(shm);
  const size_t size = prefix ? strlen(prefix) : 0;
  uint64_t slot = *cursor;
  (void)deadline;
  *count = 0;
  if (packbuf_i_shm_open_still(shm, error) != PACKBUF_OK) return PACKBUF_DISCONNECTED;
  for (; slot < shm->facts.slots && *count < capacity; slot++)
    *count += (uint64_t)packbuf_i_shm_list_slot(shm, (uint32_t)slot, prefix ? prefix : "", size, now, &listed[*count]);
  *cursor = slot < shm->facts.slots ? slot : 0;
  return PACKBUF_OK;
}

/* Bytes of all slots that are not free, and how many are LIVE. */
static void packbuf_i_shm_usage(packbuf_i_shm *shm, uint64_t *used, uint64_t *objects) {
  uint64_t units = 0;
  *objects = 0;
  for (uint32_t slot = 0; slot < shm->facts.slots; slot++) {
    const unsigned phase = packbuf_i_shm_phase(PACKBUF_I_LOAD(&shm->words[slot]));
    if (phase == PACKBUF_I_SHM_FREE) continue;
    units += packbuf_i_shm_extent_units(PACKBUF_I_LOAD(&shm->slots[slot].extent));
    *objects += phase == PACKBUF_I_SHM_LIVE;
  }
  *used = units * PACKBUF_I_SHM_UNIT;
}

static packbuf_status packbuf_i_shm_describe(void *state, packbuf_store_info *info, uint64_t deadline,
                                             packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  (void)deadline;
  if (packbuf_i_shm_open_still(shm, error) != PACKBUF_OK) return PACKBUF_DISCONNECTED;
  info->transport = "shm";
  info->stepped_down = NULL;
  memcpy(info->uri, shm->uri, sizeof info->uri);
  info->capabilities = PACKBUF_CAN_RANGES | PACKBUF_CAN_NEWEST | PACKBUF_CAN_SUPERSEDE | PACKBUF_CAN_REMOVE_NOW |
                       PACKBUF_CAN_IN_PLACE | PACKBUF_CAN_TTL | PACKBUF_CAN_EVICT | PACKBUF_CAN_QUOTA |
                       PACKBUF_CAN_LIST | PACKBUF_CAN_OUTLIVE;
  info->size = shm->facts.units * PACKBUF_I_SHM_UNIT;
  info->most_objects = shm->facts.slots;
  packbuf_i_shm_usage(shm, &info->used, &info->objects);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_shm_collect(void *state, uint64_t deadline, uint64_t *left, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  (void)deadline; /* nothing here waits for anybody */
  if (left) *left = 0;
  if (packbuf_i_shm_open_still(shm, error) != PACKBUF_OK) return PACKBUF_DISCONNECTED;
  packbuf_i_shm_bury(shm);
  packbuf_i_shm_sweep(shm, 1);
  return PACKBUF_OK;
}

static void packbuf_i_shm_count(void *state, packbuf_counters *counters) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  uint64_t used, objects;
  packbuf_i_shm_usage(shm, &used, &objects);
  counters->store_used += used;
  counters->store_objects += objects;
  counters->evicted += PACKBUF_I_LOAD(&shm->header->evicted) - shm->evicted; /* by all sessions */
  counters->expired += PACKBUF_I_LOAD(&shm->header->expired) - shm->expired;
  counters->recovered += PACKBUF_I_LOAD(&shm->header->recovered) - shm->recovered;
  counters->waits += __atomic_load_n(&shm->waits, __ATOMIC_RELAXED);
  counters->bytes_moved += __atomic_load_n(&shm->copied, __ATOMIC_RELAXED);
}

static packbuf_status packbuf_i_shm_memory(void *state, packbuf_driver_memory *memory, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  memory->writable = packbuf_i_shm_writable(shm);
  memory->readable = shm->data;
  memory->size = shm->data_size;
  if (memory->writable) return PACKBUF_OK;
  return packbuf_i_system_fail(error, "the store's data cannot be mapped for writing", ENOMEM);
}

static const packbuf_driver packbuf_i_shm_driver = {sizeof(packbuf_driver),
                                                    "shm",
                                                    packbuf_i_shm_open,
                                                    packbuf_i_shm_close,
                                                    packbuf_i_shm_describe,
                                                    NULL, /* any memory will do */
                                                    NULL,
                                                    packbuf_i_shm_reserve,
                                                    packbuf_i_shm_give_back,
                                                    packbuf_i_shm_run,
                                                    packbuf_i_shm_let_go,
                                                    packbuf_i_shm_list,
                                                    packbuf_i_shm_collect,
                                                    packbuf_i_shm_count,
                                                    NULL,
                                                    packbuf_i_shm_memory,
                                                    0,
                                                    &packbuf_i_shm_keeper};

#else /* !PACKBUF_I_SHM */

static packbuf_status packbuf_i_shm_open(void **state, const char *uri, const packbuf_store_options *options,
                                         packbuf_error *error) {
  (void)state;
  (void)uri;
  (void)options;
  return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, "shm stores need Linux on a 64-bit machine");
}

static const packbuf_driver packbuf_i_shm_driver = {sizeof(packbuf_driver),
                                                    "shm",
                                                    packbuf_i_shm_open,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    NULL,
                                                    0,
                                                    NULL};

#endif
