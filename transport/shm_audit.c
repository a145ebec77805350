/* transport/shm_audit.c: what lies in a shm store, for those who look after it: its sessions, who holds what, whether
 * every unit, slot, cell and pin is accounted for, and how the store is taken away. All of it while others work: a
 * thing counts as wrong only where a second look sees the same.
 * May use: shm_layout, shm_session, shm_units, shm_slots. Must not know: batches of items. */
#if PACKBUF_I_SHM

/* Milliseconds from a time of the root's clock, which another process wrote. */
static uint64_t packbuf_i_shm_since(uint64_t then, uint64_t now) { return now > then ? (now - then) / 1000000u : 0; }

/* 1: the process of a session that is in use has not ended. Of what this handle locks itself, which is its own or just
 * being taken back, nobody else has the lock. */
static int packbuf_i_shm_lives(packbuf_i_shm *shm, uint32_t session) {
  struct flock lock;
  if (session == shm->session) return 1;
  memset(&lock, 0, sizeof lock);
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = PACKBUF_I_SHM_LOCKS + (off_t)session;
  lock.l_len = 1;
  return fcntl(shm->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static int packbuf_i_shm_has_pin(packbuf_i_shm *shm, uint32_t slot, uint32_t session) {
  return (PACKBUF_I_LOAD(packbuf_i_shm_pin_word(shm, slot, session)) >> session % 64 & 1) != 0;
}

static uint64_t packbuf_i_shm_slot_bytes(packbuf_i_shm *shm, uint32_t slot) {
  return packbuf_i_shm_extent_units(PACKBUF_I_LOAD(&shm->slots[slot].extent)) * PACKBUF_I_SHM_UNIT;
}

/* ---- sessions ---- */

/* What one session holds, counted over all slots. */
static void packbuf_i_shm_count_session(packbuf_i_shm *shm, uint32_t session, packbuf_session *to) {
  for (uint32_t slot = 0; slot < shm->facts.slots; slot++) {
    const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
    const unsigned phase = packbuf_i_shm_phase(word);
    if (phase == PACKBUF_I_SHM_CLAIMED && packbuf_i_shm_session_of(word) == session) {
      to->slices++;
      to->slice_bytes += packbuf_i_shm_slot_bytes(shm, slot);
    } else if ((phase == PACKBUF_I_SHM_LIVE || phase == PACKBUF_I_SHM_RETIRED) &&
               packbuf_i_shm_has_pin(shm, slot, session)) {
      to->leases++;
      to->leased_bytes += packbuf_i_shm_slot_bytes(shm, slot);
    }
  }
}

/* For a terminal: it is another process that wrote it. */
static void packbuf_i_shm_copy_name(const packbuf_i_shm_session *from, char *to) {
  size_t i = 0;
  for (; i < sizeof from->name - 1 && from->name[i]; i++)
    to[i] = from->name[i] >= ' ' && from->name[i] <= '~' ? from->name[i] : '?';
  to[i] = 0;
}

/* The cursor is the next session's number. */
static packbuf_status packbuf_i_shm_list_sessions(void *state, uint64_t *cursor, packbuf_session *sessions,
                                                  uint64_t capacity, uint64_t *count, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  const uint64_t now = packbuf_i_shm_now(shm);
  uint64_t i = *cursor;
  if (packbuf_i_shm_open_still(shm, error) != PACKBUF_OK) return PACKBUF_DISCONNECTED;
  for (; i < shm->facts.sessions && *count < capacity; i++) {
    const packbuf_i_shm_session *const from = &shm->sessions[i];
    packbuf_session *const to = &sessions[*count];
    const uint64_t called = __atomic_load_n(&from->called_at, __ATOMIC_RELAXED);
    if (!PACKBUF_I_LOAD(&from->used)) continue;
    memset(to, 0, sizeof *to);
    packbuf_i_shm_copy_name(from, to->name);
    to->number = (uint32_t)i;
    to->process = from->process;
    to->age_ms = packbuf_i_shm_since(from->opened_at, now);
    to->idle_ms = packbuf_i_shm_since(called > from->opened_at ? called : from->opened_at, now);
    to->own = i == shm->session;
    to->alive = (uint8_t)packbuf_i_shm_lives(shm, (uint32_t)i);
    packbuf_i_shm_count_session(shm, (uint32_t)i, to);
    ++*count;
  }
  *cursor = i < shm->facts.sessions ? i : 0;
  return PACKBUF_OK;
}

/* ---- who holds what ---- */

/* What a session holds of a slot, copied; 0: nothing, or it is something else by now. The slot is pinned meanwhile, and
 * has the state that it had when all is read, so what was read is of one object. */
static int packbuf_i_shm_holds(packbuf_i_shm *shm, uint32_t slot, uint32_t session, uint64_t now, packbuf_held *to) {
  const packbuf_i_shm_slot *const record = &shm->slots[slot];
  const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
  const unsigned phase = packbuf_i_shm_phase(word);
  memset(to, 0, sizeof *to);
  to->session = session;
  if (phase == PACKBUF_I_SHM_CLAIMED) {
    to->kind = PACKBUF_HELD_SLICE;
    to->object.stat.length = packbuf_i_shm_slot_bytes(shm, slot);
    return packbuf_i_shm_session_of(word) == session && PACKBUF_I_LOAD(&shm->words[slot]) == word;
  }
  if ((phase != PACKBUF_I_SHM_LIVE && phase != PACKBUF_I_SHM_RETIRED) || !packbuf_i_shm_has_pin(shm, slot, session))
    return 0;
  to->kind = phase == PACKBUF_I_SHM_LIVE ? PACKBUF_HELD_LEASE : PACKBUF_HELD_REMOVED;
  packbuf_i_shm_pin(shm, slot);
  if (PACKBUF_I_LOAD(&shm->words[slot]) == word) {
    packbuf_i_shm_stat(shm, slot, now, &to->object.stat);
    memcpy(to->object.key, record->key, sizeof to->object.key);
  }
  packbuf_i_shm_unpin(shm, slot);
  to->object.key[PACKBUF_MAX_KEY] = 0;
  to->object.stat.leases = packbuf_i_shm_pins(shm, slot);
  return PACKBUF_I_LOAD(&shm->words[slot]) == word && packbuf_i_key_valid(to->object.key);
}

/* The cursor counts pairs of slot and session. */
static packbuf_status packbuf_i_shm_list_held(void *state, uint64_t *cursor, packbuf_held *held, uint64_t capacity,
                                              uint64_t *count, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  const uint64_t now = packbuf_i_shm_now(shm), each = shm->facts.sessions, all = shm->facts.slots * each;
  uint64_t at = *cursor;
  if (packbuf_i_shm_open_still(shm, error) != PACKBUF_OK) return PACKBUF_DISCONNECTED;
  while (at < all && *count < capacity) {
    const uint32_t slot = (uint32_t)(at / each), session = (uint32_t)(at % each);
    if (session == 0 && packbuf_i_shm_phase(PACKBUF_I_LOAD(&shm->words[slot])) == PACKBUF_I_SHM_FREE) {
      at += each;
      continue;
    }
    *count += (uint64_t)packbuf_i_shm_holds(shm, slot, session, now, &held[*count]);
    at++;
  }
  *cursor = at < all ? at : 0;
  return PACKBUF_OK;
}

/* ---- the audit: at any moment what is said above the tables of shm_slots.c holds, whoever was killed ---- */

enum { PACKBUF_I_SHM_LOOKS = 8 }; /* at what seems wrong: what moves is right in one of them, or is not the same */

/* Whose a unit is: nobody's, which a free slot's is too; a slot's whose extent has it. */
typedef enum packbuf_i_shm_whose { PACKBUF_I_SHM_NOBODYS, PACKBUF_I_SHM_OWNED, PACKBUF_I_SHM_LOST } packbuf_i_shm_whose;

static packbuf_i_shm_whose packbuf_i_shm_unit_of(packbuf_i_shm *shm, uint64_t unit) {
  const uint32_t owner = PACKBUF_I_LOAD(&shm->owners[unit]);
  uint64_t extent, first;
  int kept;
  if (!owner) return PACKBUF_I_SHM_NOBODYS;
  if (owner - 1 >= shm->facts.slots) return PACKBUF_I_SHM_LOST;
  kept = packbuf_i_shm_phase(PACKBUF_I_LOAD(&shm->words[owner - 1])) == PACKBUF_I_SHM_FREE;
  extent = PACKBUF_I_LOAD(&shm->slots[owner - 1].extent);
  first = packbuf_i_shm_extent_first(extent);
  if (unit < first || unit - first >= packbuf_i_shm_extent_units(extent)) return PACKBUF_I_SHM_LOST;
  return kept ? PACKBUF_I_SHM_NOBODYS : PACKBUF_I_SHM_OWNED;
}

static void packbuf_i_shm_audit_units(packbuf_i_shm *shm, packbuf_audit *audit) {
  uint64_t run = 0;
  for (uint64_t unit = 0; unit < shm->facts.units; unit++) {
    packbuf_i_shm_whose whose = PACKBUF_I_SHM_LOST;
    for (int i = 0; i < PACKBUF_I_SHM_LOOKS && whose == PACKBUF_I_SHM_LOST; i++)
      whose = packbuf_i_shm_unit_of(shm, unit);
    audit->lost_bytes += whose == PACKBUF_I_SHM_LOST ? PACKBUF_I_SHM_UNIT : 0;
    if (whose == PACKBUF_I_SHM_NOBODYS) {
      audit->free_bytes += PACKBUF_I_SHM_UNIT;
      audit->free_runs += run++ == 0;
      if (run * PACKBUF_I_SHM_UNIT > audit->largest_free) audit->largest_free = run * PACKBUF_I_SHM_UNIT;
    } else run = 0;
  }
}

enum { PACKBUF_I_SHM_TIMES = 16 }; /* a unit can be looked at for one object after another, as they come and go */

/* Bytes of an object's extent that do not carry its name. `looks`: units that may still be looked at: extents of a
 * damaged table can each be as large as the store, and then count as not the object's own. */
static uint64_t packbuf_i_shm_not_owned(packbuf_i_shm *shm, uint32_t slot, uint64_t *looks) {
  const uint64_t extent = PACKBUF_I_LOAD(&shm->slots[slot].extent), all = shm->facts.units;
  const uint64_t first = packbuf_i_shm_extent_first(extent), units = packbuf_i_shm_extent_units(extent);
  const uint64_t there = first >= all ? 0 : units < all - first ? units : all - first;
  uint64_t missing = units - there;
  if (there > *looks) return units * PACKBUF_I_SHM_UNIT;
  *looks -= there;
  for (uint64_t unit = first; unit < first + there; unit++) missing += PACKBUF_I_LOAD(&shm->owners[unit]) != slot + 1;
  return missing * PACKBUF_I_SHM_UNIT;
}

/* 1: a cell of the slot's buckets names it. */
static int packbuf_i_shm_has_cell(packbuf_i_shm *shm, uint32_t slot) {
  const uint64_t hash = PACKBUF_I_LOAD(&shm->slots[slot].hash);
  for (int i = 0; i < 2 * PACKBUF_I_SHM_BUCKET; i++)
    if (PACKBUF_I_LOAD(&packbuf_i_shm_bucket(shm, hash, i / PACKBUF_I_SHM_BUCKET)[i % PACKBUF_I_SHM_BUCKET]) ==
        packbuf_i_shm_cell(hash, slot))
      return 1;
  return 0;
}

/* An object, LIVE or RETIRED under `word`: what is wrong with it counts only while it is still that one. */
static void packbuf_i_shm_audit_object(packbuf_i_shm *shm, uint32_t slot, uint64_t word, uint64_t *looks,
                                       packbuf_audit *audit) {
  const int live = packbuf_i_shm_phase(word) == PACKBUF_I_SHM_LIVE;
  const uint64_t bytes = packbuf_i_shm_slot_bytes(shm, slot), missing = packbuf_i_shm_not_owned(shm, slot, looks);
  const int hidden = live && !packbuf_i_shm_has_cell(shm, slot);
  if (PACKBUF_I_LOAD(&shm->words[slot]) != word) return; /* on its way: it counts as what it was in no list */
  *(live ? &audit->objects : &audit->removed) += 1;
  *(live ? &audit->object_bytes : &audit->removed_bytes) += bytes;
  audit->shared_bytes += missing;
  audit->hidden += (uint64_t)hidden;
}

/* 1: a session that nobody has, looked at again and again with what names it. */
static int packbuf_i_shm_unused(packbuf_i_shm *shm, uint32_t session) {
  return session >= shm->facts.sessions || !PACKBUF_I_LOAD(&shm->sessions[session].used);
}

static void packbuf_i_shm_audit_slots(packbuf_i_shm *shm, packbuf_audit *audit) {
  uint64_t looks = PACKBUF_I_SHM_TIMES * (uint64_t)shm->facts.units;
  for (uint32_t slot = 0; slot < shm->facts.slots; slot++) {
    const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
    const unsigned phase = packbuf_i_shm_phase(word);
    if (phase == PACKBUF_I_SHM_LIVE || phase == PACKBUF_I_SHM_RETIRED) {
      packbuf_i_shm_audit_object(shm, slot, word, &looks, audit);
    } else if (phase == PACKBUF_I_SHM_CLAIMED || phase == PACKBUF_I_SHM_FREEING) {
      audit->filling += phase == PACKBUF_I_SHM_CLAIMED;
      if (phase == PACKBUF_I_SHM_CLAIMED) audit->filling_bytes += packbuf_i_shm_slot_bytes(shm, slot);
      if (packbuf_i_shm_unused(shm, packbuf_i_shm_session_of(word)) && PACKBUF_I_LOAD(&shm->words[slot]) == word)
        audit->lost_slots++;
    } else if (phase != PACKBUF_I_SHM_FREE) audit->lost_slots++;
    for (uint32_t session = 0; session < shm->pin_words * 64; session++) {
      if (session % 64 == 0 && !PACKBUF_I_LOAD(packbuf_i_shm_pin_word(shm, slot, session))) session += 63;
      else if (packbuf_i_shm_has_pin(shm, slot, session) && packbuf_i_shm_unused(shm, session) &&
               packbuf_i_shm_has_pin(shm, slot, session))
        audit->lost_pins++;
    }
  }
}

/* 1: the cell names a slot that is not free, and where that holds an object, by this object's hash. */
static int packbuf_i_shm_cell_right(packbuf_i_shm *shm, uint64_t cell) {
  const uint32_t slot = (uint32_t)cell - 1;
  unsigned phase;
  if (!(uint32_t)cell) return 1;
  if (slot >= shm->facts.slots) return 0;
  phase = packbuf_i_shm_phase(PACKBUF_I_LOAD(&shm->words[slot]));
  if (phase == PACKBUF_I_SHM_LIVE || phase == PACKBUF_I_SHM_RETIRED)
    return packbuf_i_shm_cell(PACKBUF_I_LOAD(&shm->slots[slot].hash), slot) == cell;
  return phase != PACKBUF_I_SHM_FREE; /* of one that is being filled or freed the hash may be on its way */
}

static void packbuf_i_shm_audit_cells(packbuf_i_shm *shm, packbuf_audit *audit) {
  for (uint64_t i = 0; i < (uint64_t)shm->buckets * PACKBUF_I_SHM_BUCKET; i++) {
    int looks = 0;
    while (looks < PACKBUF_I_SHM_LOOKS && !packbuf_i_shm_cell_right(shm, PACKBUF_I_LOAD(&shm->cells[i]))) looks++;
    audit->lost_cells += looks == PACKBUF_I_SHM_LOOKS;
  }
}

static packbuf_status packbuf_i_shm_audit(void *state, packbuf_audit *audit, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  if (packbuf_i_shm_open_still(shm, error) != PACKBUF_OK) return PACKBUF_DISCONNECTED;
  packbuf_i_shm_audit_units(shm, audit);
  packbuf_i_shm_audit_slots(shm, audit);
  packbuf_i_shm_audit_cells(shm, audit);
  for (uint32_t i = 0; i < shm->facts.sessions; i++)
    audit->dead += PACKBUF_I_LOAD(&shm->sessions[i].used) && !packbuf_i_shm_lives(shm, i);
  return PACKBUF_OK;
}

/* ---- taking the store away ---- */

/* The locks of sessions from `first` on. */
static int packbuf_i_shm_lock_some(packbuf_i_shm *shm, uint32_t first, uint32_t count, int kind) {
  struct flock lock;
  memset(&lock, 0, sizeof lock);
  lock.l_type = (short)kind;
  lock.l_whence = SEEK_SET;
  lock.l_start = PACKBUF_I_SHM_LOCKS + (off_t)first;
  lock.l_len = (off_t)count;
  return count == 0 || fcntl(shm->fd, F_OFD_SETLK, &lock) == 0; /* a length of 0 would be all of the file */
}

/* All sessions' locks at once, of which this handle has its own already: got only when nobody else has any; then nobody
 * becomes a session meanwhile. */
static int packbuf_i_shm_lock_all(packbuf_i_shm *shm) {
  return packbuf_i_shm_lock_some(shm, 0, shm->facts.sessions, F_WRLCK);
}

/* All but its own, which it never is without: it would count as dead. */
static void packbuf_i_shm_unlock_others(packbuf_i_shm *shm) {
  const uint32_t own = shm->session;
  (void)packbuf_i_shm_lock_some(shm, 0, own, F_UNLCK);
  (void)packbuf_i_shm_lock_some(shm, own + 1, shm->facts.sessions - own - 1, F_UNLCK);
}

/* 1: the path still names this file, and not another that was made since. */
static int packbuf_i_shm_named(const packbuf_i_shm *shm) {
  struct stat ours, there;
  return fstat(shm->fd, &ours) == 0 && lstat(shm->path, &there) == 0 && ours.st_ino == there.st_ino &&
         ours.st_dev == there.st_dev;
}

static packbuf_status packbuf_i_shm_take_away(void *state, int force, packbuf_error *error) {
  packbuf_i_shm *const shm = (packbuf_i_shm *)state;
  packbuf_status status = PACKBUF_OK;
  int alone;
  if (packbuf_i_shm_open_still(shm, error) != PACKBUF_OK) return PACKBUF_DISCONNECTED;
  packbuf_i_locked(&shm->sweeping); /* who looks for the dead takes and gives up the same locks */
  alone = packbuf_i_shm_lock_all(shm);
  if (!alone && !force) status = packbuf_i_call_fail(error, PACKBUF_LEASED, "others have the store open");
  else if (packbuf_i_shm_named(shm) && unlink(shm->path) != 0)
    status = packbuf_i_system_fail(error, "the store's file cannot be unlinked", errno);
  else {
    PACKBUF_I_STORE(&shm->header->closed, 1u);
    packbuf_i_shm_wake(shm); /* those who wait for room or a lease */
  }
  if (alone) packbuf_i_shm_unlock_others(shm);
  packbuf_i_unlocked(&shm->sweeping);
  return status;
}

static const packbuf_keeper packbuf_i_shm_keeper = {packbuf_i_shm_list_sessions, packbuf_i_shm_list_held,
                                                    packbuf_i_shm_audit, packbuf_i_shm_take_away};

#endif /* PACKBUF_I_SHM */
