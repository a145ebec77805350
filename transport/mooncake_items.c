/* transport/mooncake_items.c: what the worker threads of the store `mooncake` do for one item. KEY@generation is an
 * object of the engine, written once, with a trailer of 64 bytes behind it; "KEY@" is a pointer, the trailer of the
 * newest, for those who have no ref. What is remembered of keys are notes: the newest of this handle, and removals that
 * a lease of the engine delays.
 * May use: mooncake_engine, system. Must not know: callers, their memory and deadlines. */

/* ---- what lies behind an object, and in a pointer ---- */

static const uint8_t packbuf_i_mooncake_magic[2][8] = {{'P', 'B', 'M', 'C', 'O', 'B', 'J', '1'},
                                                       {'P', 'B', 'M', 'C', 'P', 'T', 'R', '1'}};

static void packbuf_i_mooncake_write(uint8_t *to, int pointer, const packbuf_i_mooncake_record *record) {
  memset(to, 0, PACKBUF_I_MOONCAKE_RECORD);
  memcpy(to, packbuf_i_mooncake_magic[pointer], 8);
  packbuf_i_store64(to + 8, record->generation);
  packbuf_i_store64(to + 16, record->length);
  packbuf_i_store64(to + 24, record->head_length);
  packbuf_i_store32(to + 32, record->head_checksum);
  packbuf_i_store32(to + 36, record->flags);
  to[40] = record->kind;
  memcpy(to + 44, record->fingerprint, PACKBUF_FINGERPRINT);
  packbuf_i_store32(to + 60, packbuf_checksum(0, to, 60));
}

/* 0: it is none. */
static int packbuf_i_mooncake_read(const uint8_t *from, int pointer, packbuf_i_mooncake_record *record) {
  if (memcmp(from, packbuf_i_mooncake_magic[pointer], 8) != 0) return 0;
  if (packbuf_i_load32(from + 60) != packbuf_checksum(0, from, 60)) return 0;
  record->generation = packbuf_i_load64(from + 8);
  record->length = packbuf_i_load64(from + 16);
  record->head_length = packbuf_i_load64(from + 24);
  record->head_checksum = packbuf_i_load32(from + 32);
  record->flags = packbuf_i_load32(from + 36);
  record->kind = from[40];
  memcpy(record->fingerprint, from + 44, PACKBUF_FINGERPRINT);
  return record->generation != 0;
}

/* What an object of this length takes in the engine: padded to 64, and its trailer. 0: no such length. */
static uint64_t packbuf_i_mooncake_space(uint64_t length) {
  if (length > UINT64_MAX - 63 - PACKBUF_I_MOONCAKE_RECORD) return 0;
  return (length + 63) / 64 * 64 + PACKBUF_I_MOONCAKE_RECORD;
}

/* KEY@generation; generation 0: the pointer, KEY@ alone, which can be no object's name. */
static void packbuf_i_mooncake_name(char *to, const char *key, size_t key_size, uint64_t generation) {
  memmove(to, key, key_size); /* a name may be made over in its place */
  to += key_size;
  *to++ = '@';
  for (unsigned i = 0; generation && i < 16; i++) *to++ = "0123456789abcdef"[generation >> (60 - 4 * i) & 15];
  *to = 0;
}

/* ---- generations ---- */

/* The next generation: larger than any drawn or seen here before, and hardly one that another client draws too. */
static uint64_t packbuf_i_mooncake_draw(packbuf_i_mooncake *m) {
  const uint64_t micros = packbuf_i_wall_micros();
  uint64_t generation, last = PACKBUF_I_LOAD(&m->last);
  uint16_t random = 0;
  (void)packbuf_i_random(&random, sizeof random);
  do {
    generation = micros << 12 | (random & 4095u);
    if (generation <= last) generation = last + 1 + (random & 15u);
  } while (!PACKBUF_I_EXCHANGE(&m->last, &last, generation));
  return generation;
}

static void packbuf_i_mooncake_seen(packbuf_i_mooncake *m, uint64_t generation) {
  uint64_t last = PACKBUF_I_LOAD(&m->last);
  while (last < generation && !PACKBUF_I_EXCHANGE(&m->last, &last, generation)) continue;
}

/* ---- notes; all with the lock held ---- */

static packbuf_i_mooncake_note **packbuf_i_mooncake_chain(packbuf_i_mooncake *m, const char *key, size_t key_size) {
  return &m->notes[packbuf_checksum(0, key, key_size) % PACKBUF_I_MOONCAKE_CHAINS];
}

static int packbuf_i_mooncake_is(const packbuf_i_mooncake_note *note, const char *key, size_t key_size) {
  return note->key_size == key_size && memcmp(note + 1, key, key_size) == 0;
}

/* What the last put of this handle left under the key; NULL: nothing that is remembered. */
static packbuf_i_mooncake_note *packbuf_i_mooncake_newest(packbuf_i_mooncake *m, const char *key, size_t key_size) {
  packbuf_i_mooncake_note *note = *packbuf_i_mooncake_chain(m, key, key_size);
  while (note && (note->why != PACKBUF_I_MOONCAKE_NEWEST || !packbuf_i_mooncake_is(note, key, key_size)))
    note = note->next;
  return note;
}

/* The removal of a generation that has not happened yet; generation 0: of any that was asked for. */
static packbuf_i_mooncake_note *packbuf_i_mooncake_parked(packbuf_i_mooncake *m, const char *key, size_t key_size,
                                                          uint64_t generation) {
  packbuf_i_mooncake_note *note = *packbuf_i_mooncake_chain(m, key, key_size);
  for (; note; note = note->next)
    if (note->why != PACKBUF_I_MOONCAKE_NEWEST && packbuf_i_mooncake_is(note, key, key_size) &&
        (generation ? note->record.generation == generation : note->why == PACKBUF_I_MOONCAKE_REMOVED))
      return note;
  return NULL;
}

static void packbuf_i_mooncake_forget(packbuf_i_mooncake *m, packbuf_i_mooncake_note *gone) {
  packbuf_i_mooncake_note **note = packbuf_i_mooncake_chain(m, (const char *)(const void *)(gone + 1), gone->key_size);
  while (*note != gone) note = &(*note)->next;
  *note = gone->next;
  if (gone->why != PACKBUF_I_MOONCAKE_NEWEST) m->parked--;
  (void)packbuf_i_heap(&m->allocator, gone, sizeof *gone + gone->key_size, 0);
}

/* Forgets the oldest NEWEST of a chain that has too many: the pointers of the engine still tell. */
static void packbuf_i_mooncake_trim(packbuf_i_mooncake *m, packbuf_i_mooncake_note *chain) {
  packbuf_i_mooncake_note *oldest = NULL;
  unsigned count = 0;
  for (; chain; chain = chain->next) {
    if (chain->why != PACKBUF_I_MOONCAKE_NEWEST) continue;
    count++;
    if (!oldest || chain->record.generation < oldest->record.generation) oldest = chain;
  }
  if (count > PACKBUF_I_MOONCAKE_KEPT) packbuf_i_mooncake_forget(m, oldest);
}

/* Without memory nothing is noted: an object may then outlive its removal. */
static void packbuf_i_mooncake_remember(packbuf_i_mooncake *m, const char *key, size_t key_size,
                                        packbuf_i_mooncake_why why, const packbuf_i_mooncake_record *record) {
  packbuf_i_mooncake_note **chain = packbuf_i_mooncake_chain(m, key, key_size);
  packbuf_i_mooncake_note *note =
      (packbuf_i_mooncake_note *)packbuf_i_heap(&m->allocator, NULL, 0, sizeof *note + key_size);
  if (!note) return;
  note->record = *record;
  note->why = why;
  note->key_size = key_size;
  memcpy(note + 1, key, key_size);
  note->next = *chain;
  *chain = note;
  if (why != PACKBUF_I_MOONCAKE_NEWEST) m->parked++;
  else packbuf_i_mooncake_trim(m, *chain);
}

static void packbuf_i_mooncake_forget_all(packbuf_i_mooncake *m) {
  for (size_t i = 0; i < PACKBUF_I_MOONCAKE_CHAINS; i++)
    while (m->notes[i]) packbuf_i_mooncake_forget(m, m->notes[i]);
}

/* ---- calls of the engine, in worker threads, without the lock ---- */

/* Parks the removal of an object. */
static void packbuf_i_mooncake_park(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry, uint64_t generation,
                                    packbuf_i_mooncake_why why) {
  packbuf_i_mooncake_record record;
  packbuf_i_mooncake_note *note;
  memset(&record, 0, sizeof record);
  record.generation = generation;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_parked(m, entry->name, entry->key_size, generation);
  if (!note) packbuf_i_mooncake_remember(m, entry->name, entry->key_size, why, &record);
  else if (why == PACKBUF_I_MOONCAKE_REMOVED) note->why = why;
  packbuf_i_unlocked(&m->lock);
}

static void packbuf_i_mooncake_unpark(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                      uint64_t generation) {
  packbuf_i_mooncake_note *note;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_parked(m, entry->name, entry->key_size, generation);
  if (note) packbuf_i_mooncake_forget(m, note);
  packbuf_i_unlocked(&m->lock);
}

/* Removes one generation, or parks its removal when a lease or an error delays it. OK, NOT_FOUND, or why not. */
static packbuf_status packbuf_i_mooncake_drop(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                              uint64_t generation, packbuf_i_mooncake_why why, int force) {
  char name[PACKBUF_I_MOONCAKE_NAME];
  packbuf_status status;
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, generation);
  status = packbuf_i_mooncake_status(m->api.remove(m->client, name, force));
  if (!status || status == PACKBUF_NOT_FOUND) packbuf_i_mooncake_unpark(m, entry, generation);
  else packbuf_i_mooncake_park(m, entry, generation, why);
  return status;
}

/* What was read as a pointer. NOT_FOUND: there is none, or none that is whole. */
static packbuf_status packbuf_i_mooncake_pointed(packbuf_i_mooncake *m, int64_t got, const uint8_t *at,
                                                 packbuf_i_mooncake_record *record) {
  memset(record, 0, sizeof *record);
  if (got < 0) return packbuf_i_mooncake_status(got);
  (void)PACKBUF_I_ADD(&m->moved, (uint64_t)got);
  if (got != (int64_t)PACKBUF_I_MOONCAKE_RECORD || !packbuf_i_mooncake_read(at, 1, record)) return PACKBUF_NOT_FOUND;
  packbuf_i_mooncake_seen(m, record->generation);
  return PACKBUF_OK;
}

/* Reads the pointer of a key, unless that was done with those of others. */
static packbuf_status packbuf_i_mooncake_pointer(packbuf_i_mooncake *m, uint8_t *scratch,
                                                 const packbuf_i_mooncake_entry *entry,
                                                 packbuf_i_mooncake_record *record) {
  char name[PACKBUF_I_MOONCAKE_NAME];
  int64_t got = -707;
  if (entry->looked) {
    *record = entry->pointed;
    return entry->found;
  }
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, 0);
  for (int i = 0; i < 2 && got == -707; i++) got = m->api.get_into(m->client, name, scratch, PACKBUF_I_MOONCAKE_RECORD);
  return packbuf_i_mooncake_pointed(m, got, scratch, record);
}

/* Gets many objects, most in one call. Of an object that is named twice in a call the engine fills the last buffer
 * alone, and says that it filled all: so it is named once, and got again for the others; as is one whose lease ran out
 * meanwhile. */
static void packbuf_i_mooncake_get_many(packbuf_i_mooncake *m, const char **names, void **buffers, const size_t *sizes,
                                        size_t count, int64_t *results) {
  const char *once[PACKBUF_I_MOONCAKE_WINDOW];
  void *into[PACKBUF_I_MOONCAKE_WINDOW];
  size_t rooms[PACKBUF_I_MOONCAKE_WINDOW], at[PACKBUF_I_MOONCAKE_WINDOW], distinct = 0;
  int64_t got[PACKBUF_I_MOONCAKE_WINDOW];
  int code;
  memset(rooms, 0, sizeof rooms); /* gcc does not see that there is one at least */
  for (size_t i = 0; i < count; i++) {
    size_t same = 0;
    results[i] = -707;
    while (same < distinct && strcmp(once[same], names[i]) != 0) same++;
    if (same < distinct) continue;
    once[distinct] = names[i];
    into[distinct] = buffers[i];
    rooms[distinct] = sizes[i];
    got[distinct] = -1;
    at[distinct++] = i;
  }
  code = m->api.batch_get_into(m->client, once, into, rooms, distinct, got);
  for (size_t k = 0; k < distinct; k++) results[at[k]] = code ? code : got[k];
  for (size_t i = 0; i < count; i++)
    if (results[i] == -707) results[i] = m->api.get_into(m->client, names[i], buffers[i], sizes[i]);
}

/* Reads the pointers of all entries of a part that will want theirs, in one call: a worker's page has room for a
 * window of them. */
static void packbuf_i_mooncake_pointers(packbuf_i_mooncake *m, uint8_t *scratch,
                                        packbuf_i_mooncake_entry *const *entries, size_t count) {
  packbuf_i_mooncake_entry *wanting[PACKBUF_I_MOONCAKE_WINDOW];
  const char *names[PACKBUF_I_MOONCAKE_WINDOW];
  void *buffers[PACKBUF_I_MOONCAKE_WINDOW];
  size_t sizes[PACKBUF_I_MOONCAKE_WINDOW], wants = 0;
  int64_t results[PACKBUF_I_MOONCAKE_WINDOW];
  for (size_t i = 0; i < count; i++) {
    entries[i]->looked = 0;
    if (entries[i]->asked) continue;
    packbuf_i_mooncake_name(entries[i]->name, entries[i]->name, entries[i]->key_size, 0);
    names[wants] = entries[i]->name;
    buffers[wants] = scratch + wants * PACKBUF_I_MOONCAKE_RECORD;
    sizes[wants] = PACKBUF_I_MOONCAKE_RECORD;
    wanting[wants++] = entries[i];
  }
  if (wants < 2) return;
  packbuf_i_mooncake_get_many(m, names, buffers, sizes, wants, results);
  for (size_t i = 0; i < wants; i++) {
    wanting[i]->found =
        packbuf_i_mooncake_pointed(m, results[i], scratch + i * PACKBUF_I_MOONCAKE_RECORD, &wanting[i]->pointed);
    wanting[i]->looked = 1;
  }
}

/* Forced: a pointer that was just read is leased, and its 64 bytes have a checksum of their own. */
static int packbuf_i_mooncake_unpoint(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry) {
  char name[PACKBUF_I_MOONCAKE_NAME];
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, 0);
  return m->api.remove(m->client, name, 1);
}

/* 1, and *record: what this handle put last is newer than *record (nothing is: generation 0). */
static int packbuf_i_mooncake_own(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                  packbuf_i_mooncake_record *record) {
  const packbuf_i_mooncake_note *note;
  int found = 0;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
  if (note && note->record.generation > record->generation) {
    *record = note->record;
    found = 1;
  }
  packbuf_i_unlocked(&m->lock);
  return found;
}

/* What this handle knows of a generation without asking anyone: OK means nothing. */
static packbuf_status packbuf_i_mooncake_known(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                               uint64_t generation) {
  const packbuf_i_mooncake_note *note;
  packbuf_status status = PACKBUF_OK;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_parked(m, entry->name, entry->key_size, generation);
  if (note) status = note->why == PACKBUF_I_MOONCAKE_REMOVED ? PACKBUF_NOT_FOUND : PACKBUF_STALE;
  note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
  if (!status && note && note->record.generation > generation) status = PACKBUF_STALE;
  packbuf_i_unlocked(&m->lock);
  return status;
}

/* An object that was asked for by its generation is not there: STALE where the key names another. */
static packbuf_status packbuf_i_mooncake_missing(packbuf_i_mooncake *m, uint8_t *scratch,
                                                 const packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_record newest;
  const packbuf_status status = packbuf_i_mooncake_pointer(m, scratch, entry, &newest);
  if (status) return status;
  if (newest.generation == entry->asked) return PACKBUF_NOT_FOUND;
  return packbuf_i_mooncake_known(m, entry, newest.generation) == PACKBUF_NOT_FOUND ? PACKBUF_NOT_FOUND : PACKBUF_STALE;
}

static void packbuf_i_mooncake_finish(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry, packbuf_status status) {
  packbuf_i_locked(&m->lock);
  entry->status = status;
  entry->step = PACKBUF_I_MOONCAKE_DONE;
  entry->tried = 1;
  packbuf_i_unlocked(&m->lock);
}

/* ---- put ---- */

/* Makes the pointer name `record`, or what is newer. The engine cannot exchange: so remove, put, read back, and look
 * once more whether another put of this handle came in between. *older: what it named before; 0: nothing. */
static packbuf_status packbuf_i_mooncake_point(packbuf_i_mooncake *m, uint8_t *scratch,
                                               const packbuf_i_mooncake_entry *entry, uint64_t *older,
                                               uint64_t *newest) {
  packbuf_i_mooncake_record record = entry->record, there;
  char name[PACKBUF_I_MOONCAKE_NAME];
  packbuf_i_mooncake_name(name, entry->name, entry->key_size, 0);
  *older = 0;
  for (int i = 0; i < 16; i++) {
    packbuf_status status = packbuf_i_mooncake_pointer(m, scratch, entry, &there);
    if (status && status != PACKBUF_NOT_FOUND) return status;
    (void)packbuf_i_mooncake_own(m, entry, &record);
    *newest = there.generation > record.generation ? there.generation : record.generation;
    if (there.generation >= record.generation) return PACKBUF_OK;
    if (there.generation && there.generation < entry->record.generation) *older = there.generation;
    (void)packbuf_i_mooncake_unpoint(m, entry);
    packbuf_i_mooncake_write(scratch, 1, &record);
    status = packbuf_i_mooncake_status(
        m->api.put_from(m->client, name, scratch, PACKBUF_I_MOONCAKE_RECORD, &packbuf_i_mooncake_pinned));
    if (status == PACKBUF_NOT_FOUND) continue; /* discarded, as an object is that takes too long */
    if (status) return status;
    (void)PACKBUF_I_ADD(&m->moved, PACKBUF_I_MOONCAKE_RECORD);
  }
  return PACKBUF_OK;
}

/* The object is in the engine. 1: the caller waited for it, so that it is put; 0: nobody did. *own: the generation that
 * this handle had put before. */
static int packbuf_i_mooncake_commit(packbuf_i_mooncake *m, const packbuf_i_mooncake_group *group,
                                     packbuf_i_mooncake_entry *entry, uint64_t *own) {
  packbuf_i_mooncake_note *note;
  int waited;
  *own = 0;
  packbuf_i_locked(&m->lock);
  waited = !group->left;
  if (waited) {
    entry->status = PACKBUF_OK;
    entry->step = PACKBUF_I_MOONCAKE_POINT;
    note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
    if (!note) {
      packbuf_i_mooncake_remember(m, entry->name, entry->key_size, PACKBUF_I_MOONCAKE_NEWEST, &entry->record);
    } else if (note->record.generation < entry->record.generation) {
      *own = note->record.generation;
      note->record = entry->record;
    }
  }
  packbuf_i_unlocked(&m->lock);
  return waited;
}

/* One put ended with this code. */
static void packbuf_i_mooncake_put_ended(packbuf_i_mooncake *m, uint8_t *scratch, const packbuf_i_mooncake_group *group,
                                         packbuf_i_mooncake_entry *entry, int code) {
  const uint64_t generation = entry->record.generation;
  packbuf_status status = packbuf_i_mooncake_status(code);
  uint64_t own, older = 0, newest = generation;
  if (status == PACKBUF_NOT_FOUND) status = PACKBUF_TIMEOUT; /* it took so long that the engine discarded it */
  if (status) { /* it may be there all the same: its name is known to nobody and will not be used again */
    if (status == PACKBUF_DISCONNECTED || status == PACKBUF_TIMEOUT || status == PACKBUF_SYSTEM)
      packbuf_i_mooncake_park(m, entry, generation, PACKBUF_I_MOONCAKE_LATE);
    packbuf_i_mooncake_finish(m, entry, status);
    return;
  }
  (void)PACKBUF_I_ADD(&m->moved, entry->size);
  if (!packbuf_i_mooncake_commit(m, group, entry, &own)) {
    (void)packbuf_i_mooncake_drop(m, entry, generation, PACKBUF_I_MOONCAKE_LATE, 1);
    return;
  }
  status = packbuf_i_mooncake_point(m, scratch, entry, &older, &newest);
  if (!status && newest > generation)
    (void)packbuf_i_mooncake_drop(m, entry, generation, PACKBUF_I_MOONCAKE_SUPERSEDED, 0);
  if (own) (void)packbuf_i_mooncake_drop(m, entry, own, PACKBUF_I_MOONCAKE_SUPERSEDED, 0);
  if (older && older != own) (void)packbuf_i_mooncake_drop(m, entry, older, PACKBUF_I_MOONCAKE_SUPERSEDED, 0);
  packbuf_i_mooncake_finish(m, entry, status == PACKBUF_TIMEOUT ? PACKBUF_DISCONNECTED : status);
}

static void packbuf_i_mooncake_put_part(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_group *group,
                                        packbuf_i_mooncake_entry *const *entries, size_t count) {
  const char *names[PACKBUF_I_MOONCAKE_WINDOW];
  void *buffers[PACKBUF_I_MOONCAKE_WINDOW];
  size_t sizes[PACKBUF_I_MOONCAKE_WINDOW];
  int results[PACKBUF_I_MOONCAKE_WINDOW], code;
  for (size_t i = 0; i < count; i++) {
    names[i] = entries[i]->name;
    buffers[i] = entries[i]->at;
    sizes[i] = (size_t)entries[i]->size;
    results[i] = -1;
  }
  code = m->api.batch_put_from(m->client, names, buffers, sizes, count, &packbuf_i_mooncake_pinned, results);
  for (size_t i = 0; i < count; i++)
    packbuf_i_mooncake_put_ended(m, scratch, group, entries[i], code ? code : results[i]);
}

/* ---- get and stat ---- */

static void packbuf_i_mooncake_sized(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry, uint64_t size) {
  packbuf_i_mooncake_name(entry->name, entry->name, entry->key_size, entry->record.generation);
  packbuf_i_locked(&m->lock);
  entry->size = size;
  entry->step = PACKBUF_I_MOONCAKE_SIZED;
  packbuf_i_unlocked(&m->lock);
}

/* Finds the newest. */
static packbuf_status packbuf_i_mooncake_find_newest(packbuf_i_mooncake *m, uint8_t *scratch,
                                                     packbuf_i_mooncake_entry *entry) {
  packbuf_status status = packbuf_i_mooncake_pointer(m, scratch, entry, &entry->record);
  if (status && status != PACKBUF_NOT_FOUND) return status;
  if (packbuf_i_mooncake_own(m, entry, &entry->record)) return PACKBUF_OK;
  if (status) return status;
  return packbuf_i_mooncake_known(m, entry, entry->record.generation) ? PACKBUF_NOT_FOUND : PACKBUF_OK;
}

/* Asks for the size of an object whose generation is known, and nothing else. */
static void packbuf_i_mooncake_size_up(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_entry *entry) {
  int64_t size;
  entry->record.generation = entry->asked;
  packbuf_i_mooncake_name(entry->name, entry->name, entry->key_size, entry->asked);
  size = m->api.get_size(m->client, entry->name);
  if (size < 0) {
    packbuf_status status = packbuf_i_mooncake_status(size);
    if (status == PACKBUF_NOT_FOUND) status = packbuf_i_mooncake_missing(m, scratch, entry);
    packbuf_i_mooncake_finish(m, entry, status);
  } else if (size < (int64_t)PACKBUF_I_MOONCAKE_RECORD || size % 64) {
    packbuf_i_mooncake_finish(m, entry, PACKBUF_SHORT_READ);
  } else packbuf_i_mooncake_sized(m, entry, (uint64_t)size);
}

/* What a get wants to know first: which generation, and how large. */
static void packbuf_i_mooncake_look(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_entry *entry) {
  packbuf_status status;
  uint64_t size;
  memset(&entry->record, 0, sizeof entry->record);
  if (entry->asked) {
    status = packbuf_i_mooncake_known(m, entry, entry->asked);
    if (!status && (!packbuf_i_mooncake_own(m, entry, &entry->record) || entry->record.generation != entry->asked)) {
      packbuf_i_mooncake_size_up(m, scratch, entry);
      return;
    }
  } else status = packbuf_i_mooncake_find_newest(m, scratch, entry);
  size = packbuf_i_mooncake_space(entry->record.length);
  if (status || !size) packbuf_i_mooncake_finish(m, entry, status ? status : PACKBUF_PROTOCOL);
  else packbuf_i_mooncake_sized(m, entry, size);
}

/* Whether the object is there: the one place that asks in a way that leases it. */
static packbuf_status packbuf_i_mooncake_exists(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry) {
  int code;
  packbuf_i_mooncake_name(entry->name, entry->name, entry->key_size, entry->record.generation);
  code = m->api.is_exist(m->client, entry->name);
  return code == 0 ? PACKBUF_NOT_FOUND : packbuf_i_mooncake_status(code);
}

static void packbuf_i_mooncake_stat(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_entry *entry) {
  packbuf_status status;
  if (!entry->asked) {
    status = packbuf_i_mooncake_find_newest(m, scratch, entry);
    packbuf_i_mooncake_finish(m, entry, status ? status : packbuf_i_mooncake_exists(m, entry));
    return;
  }
  status = packbuf_i_mooncake_known(m, entry, entry->asked);
  if (!status) {
    status = packbuf_i_mooncake_pointer(m, scratch, entry, &entry->record);
    if (status == PACKBUF_NOT_FOUND) status = PACKBUF_OK;
  }
  if (status) {
    packbuf_i_mooncake_finish(m, entry, status);
    return;
  }
  (void)packbuf_i_mooncake_own(m, entry, &entry->record);
  if (entry->record.generation == entry->asked)
    packbuf_i_mooncake_finish(m, entry, packbuf_i_mooncake_exists(m, entry));
  else if (entry->record.generation > entry->asked) packbuf_i_mooncake_finish(m, entry, PACKBUF_STALE);
  else packbuf_i_mooncake_size_up(m, scratch, entry); /* the pointer is behind: the trailer has what is asked */
}

/* Whether what arrived is the object, all of it. */
static packbuf_status packbuf_i_mooncake_check(packbuf_i_mooncake_entry *entry, int64_t got) {
  packbuf_i_mooncake_record record;
  if (got < 0) return packbuf_i_mooncake_status(got);
  if ((uint64_t)got != entry->size ||
      !packbuf_i_mooncake_read(entry->at + entry->size - PACKBUF_I_MOONCAKE_RECORD, 0, &record) ||
      packbuf_i_mooncake_space(record.length) != entry->size)
    return PACKBUF_SHORT_READ;
  if (record.generation != entry->record.generation) return PACKBUF_PROTOCOL;
  entry->record = record;
  return PACKBUF_OK;
}

static void packbuf_i_mooncake_fetch_part(packbuf_i_mooncake *m, uint8_t *scratch,
                                          packbuf_i_mooncake_entry *const *entries, size_t count) {
  const char *names[PACKBUF_I_MOONCAKE_WINDOW];
  void *buffers[PACKBUF_I_MOONCAKE_WINDOW];
  size_t sizes[PACKBUF_I_MOONCAKE_WINDOW];
  int64_t results[PACKBUF_I_MOONCAKE_WINDOW];
  for (size_t i = 0; i < count; i++) {
    names[i] = entries[i]->name;
    buffers[i] = entries[i]->at;
    sizes[i] = (size_t)entries[i]->size;
  }
  packbuf_i_mooncake_get_many(m, names, buffers, sizes, count, results);
  for (size_t i = 0; i < count; i++) {
    packbuf_i_mooncake_entry *entry = entries[i];
    packbuf_status status;
    if (results[i] > 0) (void)PACKBUF_I_ADD(&m->moved, (uint64_t)results[i]);
    status = packbuf_i_mooncake_check(entry, results[i]);
    entry->looked = 0; /* a pointer that was read before tells nothing of now */
    if (status == PACKBUF_NOT_FOUND && entry->asked) status = packbuf_i_mooncake_missing(m, scratch, entry);
    packbuf_i_mooncake_finish(m, entry, status);
  }
}

/* ---- remove ---- */

/* This handle's newest is no longer that. */
static void packbuf_i_mooncake_unnote(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry,
                                      uint64_t generation) {
  packbuf_i_mooncake_note *note;
  packbuf_i_locked(&m->lock);
  note = packbuf_i_mooncake_newest(m, entry->name, entry->key_size);
  if (note && note->record.generation == generation) packbuf_i_mooncake_forget(m, note);
  packbuf_i_unlocked(&m->lock);
}

/* Tries those removals of a key again that were asked for; how they went, NOT_FOUND: there were none. */
static packbuf_status packbuf_i_mooncake_remove_parked(packbuf_i_mooncake *m, const packbuf_i_mooncake_entry *entry) {
  uint64_t generations[PACKBUF_I_MOONCAKE_KEPT];
  size_t count = 0;
  packbuf_status status = PACKBUF_NOT_FOUND;
  packbuf_i_mooncake_note *note;
  packbuf_i_locked(&m->lock);
  note = *packbuf_i_mooncake_chain(m, entry->name, entry->key_size);
  for (; note && count < PACKBUF_I_MOONCAKE_KEPT; note = note->next)
    if (note->why == PACKBUF_I_MOONCAKE_REMOVED && packbuf_i_mooncake_is(note, entry->name, entry->key_size))
      generations[count++] = note->record.generation;
  packbuf_i_unlocked(&m->lock);
  for (size_t i = 0; i < count; i++) {
    packbuf_status one = packbuf_i_mooncake_drop(m, entry, generations[i], PACKBUF_I_MOONCAKE_REMOVED, entry->force);
    if (one == PACKBUF_NOT_FOUND) one = PACKBUF_OK; /* gone in the meantime */
    if (one || status == PACKBUF_NOT_FOUND) status = one;
  }
  return status;
}

/* Removes what is newest, and with it the key. */
static packbuf_status packbuf_i_mooncake_remove_newest(packbuf_i_mooncake *m, uint8_t *scratch,
                                                       packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_record pointed;
  packbuf_status status = PACKBUF_NOT_FOUND, found, parked;
  if (!entry->again) { /* later the key may be another's */
    found = packbuf_i_mooncake_pointer(m, scratch, entry, &pointed);
    if (found && found != PACKBUF_NOT_FOUND) return found;
    entry->record = pointed;
    (void)packbuf_i_mooncake_own(m, entry, &entry->record);
    if (!found) (void)packbuf_i_mooncake_unpoint(m, entry);
    packbuf_i_mooncake_unnote(m, entry, entry->record.generation);
    if (entry->record.generation)
      status = packbuf_i_mooncake_drop(m, entry, entry->record.generation, PACKBUF_I_MOONCAKE_REMOVED, entry->force);
    if (pointed.generation && pointed.generation != entry->record.generation)
      (void)packbuf_i_mooncake_drop(m, entry, pointed.generation, PACKBUF_I_MOONCAKE_REMOVED, entry->force);
  }
  parked = status == PACKBUF_LEASED ? PACKBUF_LEASED : packbuf_i_mooncake_remove_parked(m, entry);
  if (status && status != PACKBUF_NOT_FOUND) return status;
  return parked == PACKBUF_NOT_FOUND ? entry->again ? PACKBUF_OK : status : parked;
}

/* Removes one generation. */
static packbuf_status packbuf_i_mooncake_remove_one(packbuf_i_mooncake *m, uint8_t *scratch,
                                                    packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_record newest;
  packbuf_status status, found = packbuf_i_mooncake_known(m, entry, entry->asked);
  int stale;
  if (found == PACKBUF_STALE) return found; /* its removal is under way because of that */
  if (found == PACKBUF_NOT_FOUND) {
    status = packbuf_i_mooncake_drop(m, entry, entry->asked, PACKBUF_I_MOONCAKE_REMOVED, entry->force);
    return status == PACKBUF_NOT_FOUND ? PACKBUF_OK : status;
  }
  if (entry->again) return PACKBUF_OK; /* another call was quicker */
  found = packbuf_i_mooncake_pointer(m, scratch, entry, &newest);
  if (found && found != PACKBUF_NOT_FOUND) return found;
  stale = newest.generation > entry->asked;
  if (newest.generation == entry->asked) {
    entry->record = newest;
    (void)packbuf_i_mooncake_unpoint(m, entry);
  } else entry->record.generation = entry->asked;
  packbuf_i_mooncake_unnote(m, entry, entry->asked);
  status = packbuf_i_mooncake_drop(m, entry, entry->asked,
                                   stale ? PACKBUF_I_MOONCAKE_SUPERSEDED : PACKBUF_I_MOONCAKE_REMOVED, entry->force);
  if (stale || (status == PACKBUF_NOT_FOUND && newest.generation && newest.generation != entry->asked))
    return PACKBUF_STALE;
  return status;
}

static void packbuf_i_mooncake_retry(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry) {
  packbuf_i_mooncake_finish(m, entry, packbuf_i_mooncake_drop(m, entry, entry->asked, entry->why, entry->force));
}

/* ---- one part ---- */

static void packbuf_i_mooncake_one(packbuf_i_mooncake *m, uint8_t *scratch, packbuf_i_mooncake_step step,
                                   packbuf_i_mooncake_entry *entry) {
  switch (step) {
    case PACKBUF_I_MOONCAKE_SETUP:
    case PACKBUF_I_MOONCAKE_HEALTH:
      entry->code = step == PACKBUF_I_MOONCAKE_SETUP ? packbuf_i_mooncake_setup(m) : m->api.health_check(m->client);
      packbuf_i_mooncake_finish(m, entry, entry->code ? PACKBUF_DISCONNECTED : PACKBUF_OK);
      break;
    case PACKBUF_I_MOONCAKE_LOOK: packbuf_i_mooncake_look(m, scratch, entry); break;
    case PACKBUF_I_MOONCAKE_STAT: packbuf_i_mooncake_stat(m, scratch, entry); break;
    case PACKBUF_I_MOONCAKE_REMOVE:
      packbuf_i_mooncake_finish(m, entry,
                                entry->asked ? packbuf_i_mooncake_remove_one(m, scratch, entry)
                                             : packbuf_i_mooncake_remove_newest(m, scratch, entry));
      break;
    case PACKBUF_I_MOONCAKE_RETRY: packbuf_i_mooncake_retry(m, entry); break;
    default: break;
  }
}

/* 1: nobody waits for the group any more. */
static int packbuf_i_mooncake_alone(packbuf_i_mooncake *m, const packbuf_i_mooncake_group *group) {
  int left;
  packbuf_i_locked(&m->lock);
  left = group->left;
  packbuf_i_unlocked(&m->lock);
  return left;
}

static void packbuf_i_mooncake_do(packbuf_i_mooncake *m, uint8_t *scratch, const packbuf_i_mooncake_part *part,
                                  packbuf_i_mooncake_entry *const *entries, size_t count) {
  if (part->step == PACKBUF_I_MOONCAKE_PUT) packbuf_i_mooncake_put_part(m, scratch, part->group, entries, count);
  else if (part->step == PACKBUF_I_MOONCAKE_FETCH) packbuf_i_mooncake_fetch_part(m, scratch, entries, count);
  else {
    if (part->step == PACKBUF_I_MOONCAKE_LOOK || part->step == PACKBUF_I_MOONCAKE_STAT)
      packbuf_i_mooncake_pointers(m, scratch, entries, count);
    for (size_t i = 0; i < count; i++) {
      if (i && packbuf_i_mooncake_alone(m, part->group)) break;
      packbuf_i_mooncake_one(m, scratch, part->step, entries[i]);
    }
  }
}
