/* transport/shm_slots.c: the objects of a shm store: states of slots, pins of readers, the directory of keys. There is
 * no lock: every step is one compare-and-swap of one word, and says in it whose the thing is, so that a process may be
 * killed or stopped between any two instructions and nobody waits for it.
 * Readers: set the session's pin, then read the word again. Retirers: RETIRED, then read the pins. One of the two sees
 * the other, so memory is not reused under a pin that was validated. Keys: the new object is LIVE before the old one is
 * RETIRED, and removal goes upward, so a key is never lost, and an old object never shows again.
 * May use: shm_layout, shm_session, shm_units, hash. Must not know: batches of items, deadlines. */
#if PACKBUF_I_SHM

#define PACKBUF_I_SHM_NONE UINT32_MAX
#define PACKBUF_I_SHM_ROUNDS 65536 /* a search that others disturb that often meets a store that breaks the rules */

/* A key with its hash. */
typedef struct packbuf_i_shm_key {
  const char *text;
  uint32_t size;
  uint64_t hash;
} packbuf_i_shm_key;

static packbuf_i_shm_key packbuf_i_shm_key_of(const packbuf_i_shm *shm, const char *text) {
  packbuf_i_shm_key key;
  key.text = text;
  key.size = (uint32_t)packbuf_i_length(text, PACKBUF_MAX_KEY);
  key.hash = packbuf_i_siphash(shm->facts.id, text, key.size);
  return key;
}

/* ---- the directory: cells of slot + 1 and, above it, a tag of the key's hash. A cell that is empty carries a stamp
 * there, of the object that was in it last: two looks that see the same saw nothing come and go between them. ---- */

/* One of the two buckets of a hash. */
static uint64_t *packbuf_i_shm_bucket(const packbuf_i_shm *shm, uint64_t hash, int which) {
  const uint64_t half = which ? hash >> 32 : hash & 0xFFFFFFFFu;
  return shm->cells + (half * shm->buckets >> 32) * PACKBUF_I_SHM_BUCKET;
}

static uint64_t packbuf_i_shm_cell(uint64_t hash, uint32_t slot) {
  return ((hash * 0x9E3779B97F4A7C15u) & 0xFFFFFFFF00000000u) | (slot + 1);
}

/* Empties the cells of a slot that nobody else can be given: it is pinned by this session, or FREEING. */
static void packbuf_i_shm_clear_cells(packbuf_i_shm *shm, uint32_t slot) {
  const uint64_t hash = PACKBUF_I_LOAD(&shm->slots[slot].hash);
  const uint64_t stamp = PACKBUF_I_LOAD(&shm->slots[slot].generation) << 32;
  for (int which = 0; which < 2; which++) {
    uint64_t *const cells = packbuf_i_shm_bucket(shm, hash, which);
    for (int i = 0; i < PACKBUF_I_SHM_BUCKET; i++) {
      uint64_t cell = PACKBUF_I_LOAD(&cells[i]);
      if ((uint32_t)cell == slot + 1) (void)PACKBUF_I_EXCHANGE(&cells[i], &cell, stamp);
    }
  }
}

/* Puts a cell into the emptier bucket. 0: both are full. */
static int packbuf_i_shm_place_cell(packbuf_i_shm *shm, uint64_t hash, uint32_t slot) {
  const uint64_t cell = packbuf_i_shm_cell(hash, slot);
  uint64_t *cells[2];
  int used[2];
  for (int which = 0; which < 2; which++) {
    cells[which] = packbuf_i_shm_bucket(shm, hash, which);
    used[which] = 0;
    for (int i = 0; i < PACKBUF_I_SHM_BUCKET; i++) used[which] += (uint32_t)PACKBUF_I_LOAD(&cells[which][i]) != 0;
  }
  for (int n = 0; n < 2; n++) {
    uint64_t *const into = cells[used[1] < used[0] ? 1 - n : n];
    for (int i = 0; i < PACKBUF_I_SHM_BUCKET; i++) {
      uint64_t old = PACKBUF_I_LOAD(&into[i]);
      if ((uint32_t)old == 0 && PACKBUF_I_EXCHANGE(&into[i], &old, cell)) return 1;
    }
  }
  return 0;
}

/* Loads the lines by which a put that supersedes will go: the cells of the key, the older object under it and the slot
 * that was freed last. A hint; the copy of the bytes hides the wait. */
static void packbuf_i_shm_expect(const packbuf_i_shm *shm, uint64_t hash) {
  const uint64_t tag = packbuf_i_shm_cell(hash, 0) >> 32;
  for (int which = 0; which < 2; which++) {
    const uint64_t *const cells = packbuf_i_shm_bucket(shm, hash, which);
    for (int i = 0; i < PACKBUF_I_SHM_BUCKET; i++) {
      const uint64_t cell = __atomic_load_n(&cells[i], __ATOMIC_RELAXED);
      const uint32_t slot = (uint32_t)cell - 1;
      if (cell >> 32 != tag || slot >= shm->facts.slots) continue;
      __builtin_prefetch(&shm->words[slot], 1);
      __builtin_prefetch(shm->pins + (uint64_t)slot * shm->pin_words, 1);
      __builtin_prefetch(&shm->slots[slot].extent, 1);
      __builtin_prefetch(&shm->slots[slot].key);
      __builtin_prefetch(&shm->local[slot], 1);
    }
  }
}

/* ---- pins ---- */

static void packbuf_i_shm_pin(packbuf_i_shm *shm, uint32_t slot) {
  packbuf_i_lock *const stripe = &shm->stripes[slot % 64];
  packbuf_i_locked(stripe);
  if (shm->local[slot]++ == 0)
    PACKBUF_I_OR(packbuf_i_shm_pin_word(shm, slot, shm->session), (uint64_t)1 << shm->session % 64);
  packbuf_i_unlocked(stripe);
}

/* The last one of this handle frees what is RETIRED. */
static void packbuf_i_shm_unpin(packbuf_i_shm *shm, uint32_t slot) {
  packbuf_i_lock *const stripe = &shm->stripes[slot % 64];
  int last = 0;
  packbuf_i_locked(stripe);
  if (shm->local[slot] && --shm->local[slot] == 0) {
    PACKBUF_I_AND(packbuf_i_shm_pin_word(shm, slot, shm->session), ~((uint64_t)1 << shm->session % 64));
    last = 1;
  }
  packbuf_i_unlocked(stripe);
  if (last) packbuf_i_shm_try_free(shm, slot);
}

/* How many sessions have it pinned. */
static uint32_t packbuf_i_shm_pins(packbuf_i_shm *shm, uint32_t slot) {
  const uint64_t *const pins = shm->pins + (uint64_t)slot * shm->pin_words;
  uint32_t count = 0;
  for (uint32_t i = 0; i < shm->pin_words; i++)
    for (uint64_t word = PACKBUF_I_LOAD(&pins[i]); word; word &= word - 1) count++;
  return count;
}

/* ---- slots ---- */

/* What was freed last is used next: it is in the cache. Threads of a handle may lose some to each other. */
static void packbuf_i_shm_remember(packbuf_i_shm *shm, uint32_t slot, uint64_t extent) {
  const uint32_t count = __atomic_load_n(&shm->freed_count, __ATOMIC_RELAXED);
  __atomic_store_n(&shm->freed[count % PACKBUF_I_SHM_FREED], slot + 1, __ATOMIC_RELAXED);
  __atomic_store_n(&shm->freed_count, count + 1, __ATOMIC_RELAXED);
  if (extent) __atomic_store_n(&shm->next_unit, packbuf_i_shm_extent_first(extent), __ATOMIC_RELAXED);
}

/* Cells, units, and then the slot itself. Done again by the next one where this one is killed. */
static void packbuf_i_shm_free_slot(packbuf_i_shm *shm, uint32_t slot) {
  packbuf_i_shm_slot *const record = &shm->slots[slot];
  const uint64_t extent = PACKBUF_I_LOAD(&record->extent), word = PACKBUF_I_LOAD(&shm->words[slot]);
  packbuf_i_shm_clear_cells(shm, slot);
  packbuf_i_shm_release_units(shm, slot, packbuf_i_shm_extent_first(extent), packbuf_i_shm_extent_units(extent));
  packbuf_i_shm_remember(shm, slot, extent);
  PACKBUF_I_STORE(&record->extent, 0u);
  PACKBUF_I_STORE(&shm->words[slot], packbuf_i_shm_freed_word(word));
}

/* Frees a slot whose object ended, but for its units, which it keeps. Pins of readers that fail only delay: who takes
 * the last one away comes here again. */
static void packbuf_i_shm_try_free(packbuf_i_shm *shm, uint32_t slot) {
  uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
  if (packbuf_i_shm_phase(word) != PACKBUF_I_SHM_RETIRED || packbuf_i_shm_pins(shm, slot)) return;
  if (!PACKBUF_I_EXCHANGE(&shm->words[slot], &word, packbuf_i_shm_word(word, shm->session, PACKBUF_I_SHM_FREEING)))
    return;
  packbuf_i_shm_clear_cells(shm, slot);
  packbuf_i_shm_remember(shm, slot, PACKBUF_I_LOAD(&shm->slots[slot].extent));
  PACKBUF_I_STORE(&shm->words[slot], packbuf_i_shm_freed_word(word));
  packbuf_i_shm_wake(shm);
}

/* FREE -> CLAIMED by this session. */
static int packbuf_i_shm_try_slot(packbuf_i_shm *shm, uint32_t slot) {
  uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
  return packbuf_i_shm_phase(word) == PACKBUF_I_SHM_FREE &&
         PACKBUF_I_EXCHANGE(&shm->words[slot], &word, packbuf_i_shm_word(word, shm->session, PACKBUF_I_SHM_CLAIMED));
}

/* Of the slots that this handle freed last the newest one that kept as many units, else the newest; CLAIMED; NONE. */
static uint32_t packbuf_i_shm_claim_freed(packbuf_i_shm *shm, uint64_t units) {
  const uint32_t count = __atomic_load_n(&shm->freed_count, __ATOMIC_RELAXED);
  uint32_t *const newest = &shm->freed[(count - 1) % PACKBUF_I_SHM_FREED], *best = newest, slot;
  if (!count) return PACKBUF_I_SHM_NONE;
  for (uint32_t i = 1; i <= count && i <= PACKBUF_I_SHM_FREED; i++) {
    uint32_t *const one = &shm->freed[(count - i) % PACKBUF_I_SHM_FREED];
    slot = __atomic_load_n(one, __ATOMIC_RELAXED);
    if (!slot || packbuf_i_shm_extent_units(PACKBUF_I_LOAD(&shm->slots[slot - 1].extent)) != units) continue;
    best = one;
    break;
  }
  slot = __atomic_load_n(best, __ATOMIC_RELAXED);
  __atomic_store_n(best, __atomic_load_n(newest, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
  __atomic_store_n(newest, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&shm->freed_count, count - 1, __ATOMIC_RELAXED);
  return slot && packbuf_i_shm_try_slot(shm, slot - 1) ? slot - 1 : PACKBUF_I_SHM_NONE;
}

/* A free slot, CLAIMED by this session: one that was freed lately, else the next one; NONE. */
static uint32_t packbuf_i_shm_claim_slot(packbuf_i_shm *shm, uint64_t units) {
  const uint32_t all = shm->facts.slots, last = packbuf_i_shm_claim_freed(shm, units);
  uint32_t slot = (uint32_t)__atomic_load_n(&shm->next_slot, __ATOMIC_RELAXED);
  if (last != PACKBUF_I_SHM_NONE) return last;
  for (uint32_t i = 0; i < all; i++, slot++) {
    if (slot >= all) slot = 0;
    if (packbuf_i_shm_try_slot(shm, slot)) {
      __atomic_store_n(&shm->next_slot, slot + 1, __ATOMIC_RELAXED);
      return slot;
    }
  }
  return PACKBUF_I_SHM_NONE;
}

/* 1: this session has it CLAIMED. */
static int packbuf_i_shm_claimed(const packbuf_i_shm *shm, uint32_t slot) {
  uint64_t word;
  if (slot >= shm->facts.slots) return 0;
  word = PACKBUF_I_LOAD(&shm->words[slot]);
  return packbuf_i_shm_phase(word) == PACKBUF_I_SHM_CLAIMED && packbuf_i_shm_session_of(word) == shm->session;
}

/* Gives up what this session has CLAIMED. A try for room that failed wakes nobody: two who wait for more than there is
 * would wake each other all the time. */
static void packbuf_i_shm_drop_quietly(packbuf_i_shm *shm, uint32_t slot) {
  const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
  PACKBUF_I_STORE(&shm->words[slot], packbuf_i_shm_word(word, shm->session, PACKBUF_I_SHM_FREEING));
  packbuf_i_shm_free_slot(shm, slot);
}

static void packbuf_i_shm_drop(packbuf_i_shm *shm, uint32_t slot) {
  packbuf_i_shm_drop_quietly(shm, slot);
  packbuf_i_shm_wake(shm);
}

/* ---- finding ---- */

/* The record of a slot that was LIVE with this word, pinned: 1 when it still is and has this key. */
static int packbuf_i_shm_is(const packbuf_i_shm *shm, uint32_t slot, uint64_t word, const packbuf_i_shm_key *key) {
  const packbuf_i_shm_slot *const record = &shm->slots[slot];
  return PACKBUF_I_LOAD(&shm->words[slot]) == word && record->key_size == key->size &&
         memcmp(record->key, key->text, key->size) == 0;
}

/* The newest LIVE object of a key, which comes back pinned; NOT_FOUND; PROTOCOL: damaged tables.
 * It is believed only while it is still LIVE after all cells were read: older ones are retired before newer ones, so a
 * newer one that another search of this thread has seen cannot have been overlooked. That there is none is believed
 * only when a second look sees the same cells and words (they carry stamps and incarnations): a put that moves the key
 * from one cell to another between two reads does not make it vanish. */
static packbuf_status packbuf_i_shm_find(packbuf_i_shm *shm, const packbuf_i_shm_key *key, uint32_t *found) {
  enum { LOOK = 4 * PACKBUF_I_SHM_BUCKET };
  uint64_t before[LOOK], now[LOOK];
  const uint64_t tag = packbuf_i_shm_cell(key->hash, 0) >> 32;
  for (int round = 0; round < PACKBUF_I_SHM_ROUNDS; round++) {
    uint32_t best = PACKBUF_I_SHM_NONE;
    uint64_t best_word = 0, newest = 0;
    for (int i = 0; i < 2 * PACKBUF_I_SHM_BUCKET; i++) {
      uint64_t *const cells = packbuf_i_shm_bucket(shm, key->hash, i / PACKBUF_I_SHM_BUCKET);
      const uint64_t cell = PACKBUF_I_LOAD(&cells[i % PACKBUF_I_SHM_BUCKET]);
      const uint32_t slot = (uint32_t)cell - 1;
      uint64_t word;
      now[2 * i] = cell;
      now[2 * i + 1] = 0;
      if ((uint32_t)cell == 0 || cell >> 32 != tag || slot == best) continue;
      if (slot >= shm->facts.slots) return PACKBUF_PROTOCOL;
      now[2 * i + 1] = word = PACKBUF_I_LOAD(&shm->words[slot]);
      if (packbuf_i_shm_phase(word) != PACKBUF_I_SHM_LIVE) continue;
      packbuf_i_shm_pin(shm, slot);
      if (packbuf_i_shm_is(shm, slot, word, key) &&
          (best == PACKBUF_I_SHM_NONE || shm->slots[slot].generation > newest)) {
        if (best != PACKBUF_I_SHM_NONE) packbuf_i_shm_unpin(shm, best);
        best = slot;
        best_word = word;
        newest = shm->slots[slot].generation;
      } else packbuf_i_shm_unpin(shm, slot);
    }
    if (best == PACKBUF_I_SHM_NONE) {
      if (round && memcmp(before, now, sizeof now) == 0) return PACKBUF_NOT_FOUND;
      memcpy(before, now, sizeof now);
    } else if (PACKBUF_I_LOAD(&shm->words[best]) == best_word) {
      *found = best;
      return PACKBUF_OK;
    } else {
      packbuf_i_shm_unpin(shm, best);
      memset(before, 0xFF, sizeof before); /* no look sees that */
    }
  }
  return PACKBUF_PROTOCOL;
}

/* ---- retiring ---- */

/* LIVE -> RETIRED, and out of the directory at once, so that a key with many leased generations does not fill its
 * buckets; the caller has it pinned, so the slot cannot be anybody else's before the cells are cleared. 0: another one
 * did it. */
static int packbuf_i_shm_retire(packbuf_i_shm *shm, uint32_t slot, uint64_t word) {
  if (!PACKBUF_I_EXCHANGE(&shm->words[slot], &word, packbuf_i_shm_word(word, 0, PACKBUF_I_SHM_RETIRED))) return 0;
  packbuf_i_shm_clear_cells(shm, slot);
  return 1;
}

/* Retires all LIVE objects of the key whose generation is below `below`, the oldest first. Returns the largest
 * generation above `below` of those that it saw and left, else `below`. */
static uint64_t packbuf_i_shm_retire_below(packbuf_i_shm *shm, const packbuf_i_shm_key *key, uint64_t below) {
  const uint64_t tag = packbuf_i_shm_cell(key->hash, 0) >> 32;
  for (int round = 0;; round++) {
    uint32_t lowest = PACKBUF_I_SHM_NONE;
    uint64_t lowest_word = 0, low = below, above = below;
    for (int i = 0; i < 2 * PACKBUF_I_SHM_BUCKET; i++) {
      uint64_t *const cells = packbuf_i_shm_bucket(shm, key->hash, i / PACKBUF_I_SHM_BUCKET);
      const uint64_t cell = PACKBUF_I_LOAD(&cells[i % PACKBUF_I_SHM_BUCKET]);
      const uint32_t slot = (uint32_t)cell - 1;
      uint64_t word, generation;
      if ((uint32_t)cell == 0 || cell >> 32 != tag || slot >= shm->facts.slots || slot == lowest) continue;
      word = PACKBUF_I_LOAD(&shm->words[slot]);
      if (packbuf_i_shm_phase(word) != PACKBUF_I_SHM_LIVE) continue;
      generation = PACKBUF_I_LOAD(&shm->slots[slot].generation); /* a hint before the slot is pinned */
      if (generation >= low && generation <= above) continue;
      packbuf_i_shm_pin(shm, slot);
      generation = PACKBUF_I_LOAD(&shm->slots[slot].generation);
      if (!packbuf_i_shm_is(shm, slot, word, key)) {
        packbuf_i_shm_unpin(shm, slot);
      } else if (generation < low) {
        if (lowest != PACKBUF_I_SHM_NONE) packbuf_i_shm_unpin(shm, lowest);
        lowest = slot;
        lowest_word = word;
        low = generation;
      } else {
        if (generation > above) above = generation;
        packbuf_i_shm_unpin(shm, slot);
      }
    }
    if (lowest == PACKBUF_I_SHM_NONE) return above;
    (void)packbuf_i_shm_retire(shm, lowest, lowest_word);
    packbuf_i_shm_unpin(shm, lowest);
    if (round > PACKBUF_I_SHM_ROUNDS) return above; /* damaged tables */
  }
}

/* ---- putting ---- */

/* A slot with room for `size` bytes, CLAIMED; NONE: *slots says whether it is slots that there are none of. */
static uint32_t packbuf_i_shm_claim(packbuf_i_shm *shm, uint64_t size, int *slots) {
  const uint64_t units = packbuf_i_shm_units(size);
  const uint32_t slot = packbuf_i_shm_claim_slot(shm, units);
  *slots = slot == PACKBUF_I_SHM_NONE;
  if (*slots) return slot;
  if (packbuf_i_shm_claim_units(shm, slot, units)) return slot;
  packbuf_i_shm_drop_quietly(shm, slot);
  return PACKBUF_I_SHM_NONE;
}

/* What an object is, but for its data and generation. */
typedef struct packbuf_i_shm_about {
  uint64_t length, ttl, now; /* ttl: ns; 0: none */
  uint32_t flags;
  const packbuf_ref *ref; /* or NULL */
} packbuf_i_shm_about;

/* Whose quota an object is, while the session lasts. */
static uint64_t packbuf_i_shm_putter(const packbuf_i_shm *shm) {
  return (uint64_t)shm->session << 32 | shm->incarnation;
}

/* Gives a CLAIMED slot its key, stat and generation, and a cell. 0: the directory has no cell for it. */
static int packbuf_i_shm_name(packbuf_i_shm *shm, uint32_t slot, const packbuf_i_shm_key *key,
                              const packbuf_i_shm_about *about) {
  packbuf_i_shm_slot *const record = &shm->slots[slot];
  const uint64_t now = about->now;
  memcpy(record->key, key->text, key->size);
  record->key[key->size] = 0;
  record->key_size = (uint8_t)key->size;
  record->length = about->length;
  record->put_at = now;
  /* what others look at without a pin, as a hint */
  __atomic_store_n(&record->ends_at, about->ttl ? now + about->ttl : 0, __ATOMIC_RELAXED);
  __atomic_store_n(&record->read_at, now, __ATOMIC_RELAXED);
  __atomic_store_n(&record->putter, packbuf_i_shm_putter(shm), __ATOMIC_RELAXED);
  __atomic_store_n(&record->flags, about->flags, __ATOMIC_RELAXED);
  record->kind = about->ref ? about->ref->kind : 0;
  record->head_length = about->ref ? about->ref->head_length : 0;
  record->head_checksum = about->ref ? about->ref->head_checksum : 0;
  if (about->ref) memcpy(record->fingerprint, about->ref->fingerprint, PACKBUF_FINGERPRINT);
  else memset(record->fingerprint, 0, PACKBUF_FINGERPRINT);
  /* seen by whoever sees the cell or, later, LIVE */
  __atomic_store_n(&record->hash, key->hash, __ATOMIC_RELEASE);
  __atomic_store_n(&record->generation, PACKBUF_I_ADD(&shm->header->generation, 1u), __ATOMIC_RELEASE);
  return packbuf_i_shm_place_cell(shm, key->hash, slot); /* after hash and generation, by which it is cleared */
}

/* CLAIMED -> LIVE: the put is done. Then older ones go, and where a newer one is there already, this one. Returns the
 * generation. The slot may be anybody's when this returns. */
static uint64_t packbuf_i_shm_publish(packbuf_i_shm *shm, uint32_t slot, const packbuf_i_shm_key *key) {
  const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
  const uint64_t generation = PACKBUF_I_LOAD(&shm->slots[slot].generation);
  uint64_t above;
  packbuf_i_crc_fence(); /* whoever filled it may have used non-temporal stores */
  PACKBUF_I_STORE(&shm->words[slot], packbuf_i_shm_word(word, 0, PACKBUF_I_SHM_LIVE));
  above = packbuf_i_shm_retire_below(shm, key, generation);
  while (above > generation) {
    const uint64_t next = packbuf_i_shm_retire_below(shm, key, above);
    if (next <= above) break;
    above = next;
  }
  return generation;
}

/* ---- looking after all of them ---- */

/* Of a pinned object. */
static void packbuf_i_shm_stat(packbuf_i_shm *shm, uint32_t slot, uint64_t now, packbuf_stat *stat) {
  const packbuf_i_shm_slot *const record = &shm->slots[slot];
  const uint64_t ends_at = __atomic_load_n(&record->ends_at, __ATOMIC_RELAXED);
  stat->generation = PACKBUF_I_LOAD(&record->generation);
  stat->length = record->length;
  stat->head_length = record->head_length;
  stat->age_ms = now > record->put_at ? (now - record->put_at) / 1000000u : 0;
  stat->left_ms = !ends_at ? UINT64_MAX : ends_at > now ? (ends_at - now) / 1000000u : 0;
  stat->head_checksum = record->head_checksum;
  stat->flags = __atomic_load_n(&record->flags, __ATOMIC_RELAXED);
  stat->leases = packbuf_i_shm_pins(shm, slot);
  stat->kind = record->kind;
  memcpy(stat->fingerprint, record->fingerprint, PACKBUF_FINGERPRINT);
}

/* The key of a LIVE slot whose word is given, copied; pinned meanwhile. 0: it is another object by now, or damaged. */
static int packbuf_i_shm_copy_key(packbuf_i_shm *shm, uint32_t slot, uint64_t word, char text[PACKBUF_MAX_KEY + 1],
                                  packbuf_i_shm_key *key) {
  const packbuf_i_shm_slot *const record = &shm->slots[slot];
  int good;
  packbuf_i_shm_pin(shm, slot);
  good = PACKBUF_I_LOAD(&shm->words[slot]) == word;
  key->text = text;
  key->size = good ? record->key_size : 0;
  key->hash = PACKBUF_I_LOAD(&record->hash);
  if (good) memcpy(text, record->key, PACKBUF_MAX_KEY + 1);
  packbuf_i_shm_unpin(shm, slot);
  text[key->size] = 0;
  return good && key->size && strlen(text) == key->size;
}

/* Retires a LIVE object and, before it, older ones of its key. */
static int packbuf_i_shm_end_object(packbuf_i_shm *shm, uint32_t slot, uint64_t word) {
  char text[PACKBUF_MAX_KEY + 1];
  packbuf_i_shm_key key;
  uint64_t generation = PACKBUF_I_LOAD(&shm->slots[slot].generation);
  if (!packbuf_i_shm_copy_key(shm, slot, word, text, &key)) return 0;
  if (PACKBUF_I_LOAD(&shm->words[slot]) != word) return 0; /* or the generation may be another's */
  (void)packbuf_i_shm_retire_below(shm, &key, generation + 1);
  return PACKBUF_I_LOAD(&shm->words[slot]) != word;
}

/* 1: its time is over. */
static int packbuf_i_shm_over(const packbuf_i_shm_slot *record, uint64_t now) {
  const uint64_t ends_at = __atomic_load_n(&record->ends_at, __ATOMIC_RELAXED);
  return ends_at && ends_at <= now;
}

/* Frees what is RETIRED and not pinned (its retirer was killed). `all`: also drops what is over, and retires what a
 * killed put left LIVE below the newest. */
static void packbuf_i_shm_sweep(packbuf_i_shm *shm, int all) {
  const uint64_t now = packbuf_i_shm_now(shm);
  for (uint32_t slot = 0; slot < shm->facts.slots; slot++) {
    const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
    char text[PACKBUF_MAX_KEY + 1];
    packbuf_i_shm_key key;
    uint32_t newest;
    if (packbuf_i_shm_phase(word) == PACKBUF_I_SHM_RETIRED) packbuf_i_shm_try_free(shm, slot);
    if (packbuf_i_shm_phase(word) != PACKBUF_I_SHM_LIVE || !all) continue;
    if (packbuf_i_shm_over(&shm->slots[slot], now)) {
      if (packbuf_i_shm_end_object(shm, slot, word)) PACKBUF_I_ADD(&shm->header->expired, 1u);
    } else if (packbuf_i_shm_copy_key(shm, slot, word, text, &key) &&
               packbuf_i_shm_find(shm, &key, &newest) == PACKBUF_OK) {
      if (newest != slot) (void)packbuf_i_shm_retire_below(shm, &key, shm->slots[newest].generation);
      packbuf_i_shm_unpin(shm, newest);
    }
  }
}

/* Drops EVICTABLE objects that nobody has pinned, the least recently read first, until about `units` units are free or
 * there are none. Returns how many it dropped. */
static uint64_t packbuf_i_shm_evict(packbuf_i_shm *shm, uint64_t units) {
  enum { PICK = 32 };
  uint32_t slots[PICK];
  uint64_t words[PICK], ages[PICK], freed = 0, dropped = 0;
  int count = 0;
  for (uint32_t slot = 0; slot < shm->facts.slots; slot++) {
    const uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]);
    const packbuf_i_shm_slot *const record = &shm->slots[slot];
    uint64_t age;
    int at;
    if (packbuf_i_shm_phase(word) != PACKBUF_I_SHM_LIVE ||
        !(__atomic_load_n(&record->flags, __ATOMIC_RELAXED) & PACKBUF_PUT_EVICTABLE) || packbuf_i_shm_pins(shm, slot))
      continue;
    age = PACKBUF_I_LOAD(&record->read_at);
    if (count == PICK && age >= ages[PICK - 1]) continue;
    at = count < PICK ? count++ : PICK - 1;
    for (; at > 0 && ages[at - 1] > age; at--)
      slots[at] = slots[at - 1], words[at] = words[at - 1], ages[at] = ages[at - 1];
    slots[at] = slot;
    words[at] = word;
    ages[at] = age;
  }
  for (int i = 0; i < count && freed < units; i++) {
    const uint64_t some = packbuf_i_shm_extent_units(PACKBUF_I_LOAD(&shm->slots[slots[i]].extent));
    if (packbuf_i_shm_pins(shm, slots[i]) || !packbuf_i_shm_end_object(shm, slots[i], words[i])) continue;
    freed += some ? some : 1; /* an empty one frees a slot */
    dropped++;
  }
  if (dropped) {
    PACKBUF_I_ADD(&shm->header->evicted, dropped);
    packbuf_i_shm_say(shm, PACKBUF_LOG_DEBUG, "shm: dropped ", dropped, " objects for room", "");
  }
  return dropped;
}

#endif /* PACKBUF_I_SHM */
