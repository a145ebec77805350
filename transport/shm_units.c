/* transport/shm_units.c: the memory of a shm store, in units of 4096 bytes, without a lock: a word for each unit names
 * the slot that owns it, and the slot's extent, written before, says which units may be its own. Whoever frees a slot
 * frees exactly those units of its extent that carry its name, however far its owner had come when it was killed. The
 * units of an object that ends stay with its slot, which is free all the same: the next put into it that is about as
 * large has them without a word to each, and who looks for room takes them.
 * May use: shm_layout, shm_session (states of slots). Must not know: what objects are, the directory. */
#if PACKBUF_I_SHM

/* So many bytes take. */
static uint64_t packbuf_i_shm_units(uint64_t size) {
  return size / PACKBUF_I_SHM_UNIT + (size % PACKBUF_I_SHM_UNIT != 0);
}

static uint64_t packbuf_i_shm_extent(uint64_t first, uint64_t units) { return first << 32 | units; }
static uint64_t packbuf_i_shm_extent_first(uint64_t extent) { return extent >> 32; }
static uint64_t packbuf_i_shm_extent_units(uint64_t extent) { return extent & 0xFFFFFFFFu; }

/* Frees those of the units that are this slot's. A run, so whole words where two lie in one. */
static void packbuf_i_shm_release_units(packbuf_i_shm *shm, uint32_t slot, uint64_t first, uint64_t units) {
  const uint64_t all = shm->facts.units;
  if (first >= all) return;
  if (units > all - first) units = all - first;
  for (uint64_t unit = first; unit < first + units; unit++)
    if (__atomic_load_n(&shm->owners[unit], __ATOMIC_RELAXED) == slot + 1)
      __atomic_store_n(&shm->owners[unit], 0, __ATOMIC_RELEASE);
}

/* Claims the units of a run for a slot, two a compare-and-swap where they lie in one word. Returns how many it got
 * before one was somebody else's. */
static uint64_t packbuf_i_shm_claim_run(packbuf_i_shm *shm, uint32_t slot, uint64_t first, uint64_t units) {
  const uint32_t one = slot + 1;
  const uint64_t two = (uint64_t)one << 32 | one;
  uint64_t got = 0;
  while (got < units) {
    uint32_t *const owner = &shm->owners[first + got];
    if (got + 2 <= units && (first + got) % 2 == 0) {
      uint64_t none = 0;
      if (!PACKBUF_I_EXCHANGE((uint64_t *)(void *)owner, &none, two)) break;
      got += 2;
    } else {
      uint32_t none = 0;
      if (!PACKBUF_I_EXCHANGE(owner, &none, one)) break;
      got++;
    }
  }
  return got;
}

/* Behind a unit that is not free: the end of the extent of the slot that owns it, so that a search costs objects, not
 * units. What is read may be stale or damaged: it is believed only where it leads onwards. */
static uint64_t packbuf_i_shm_behind(packbuf_i_shm *shm, uint64_t unit, uint32_t owner) {
  if (owner - 1 < shm->facts.slots) {
    const uint64_t extent = PACKBUF_I_LOAD(&shm->slots[owner - 1].extent);
    const uint64_t first = packbuf_i_shm_extent_first(extent), units = packbuf_i_shm_extent_units(extent);
    if (unit >= first && unit < first + units) return first + units;
  }
  return unit + 1;
}

/* Gives back all but the first `units` of a CLAIMED slot's extent: the units first, the smaller extent after them, so
 * that the extent covers what is owned at any time. */
static void packbuf_i_shm_trim_units(packbuf_i_shm *shm, uint32_t slot, uint64_t units) {
  uint64_t *const extent = &shm->slots[slot].extent;
  const uint64_t old = PACKBUF_I_LOAD(extent), first = packbuf_i_shm_extent_first(old);
  if (units >= packbuf_i_shm_extent_units(old)) return;
  packbuf_i_shm_release_units(shm, slot, first + units, packbuf_i_shm_extent_units(old) - units);
  PACKBUF_I_STORE(extent, units ? packbuf_i_shm_extent(first, units) : 0);
}

/* The units that a slot, CLAIMED now, has kept of its last object: 1 when they do for `units`. Else they are given
 * back: a small object in the place of a large one would leave gaps that nothing large fits into. */
static int packbuf_i_shm_keep_units(packbuf_i_shm *shm, uint32_t slot, uint64_t units) {
  const uint64_t all = shm->facts.units, extent = PACKBUF_I_LOAD(&shm->slots[slot].extent);
  const uint64_t first = packbuf_i_shm_extent_first(extent), kept = packbuf_i_shm_extent_units(extent);
  uint64_t own = 0;
  if (!kept) return 0;
  if (units && units <= kept && kept - units <= kept / 8 && first < all && kept <= all - first)
    while (own < kept && __atomic_load_n(&shm->owners[first + own], __ATOMIC_RELAXED) == slot + 1) own++;
  if (own == kept) packbuf_i_shm_trim_units(shm, slot, units);
  else packbuf_i_shm_release_units(shm, slot, first, kept);
  return own == kept;
}

/* Frees the units of a slot that is free and has kept them. 0: it is not. */
static int packbuf_i_shm_take_units(packbuf_i_shm *shm, uint32_t owner) {
  const uint32_t slot = owner - 1;
  uint64_t word, extent;
  if (slot >= shm->facts.slots) return 0;
  word = PACKBUF_I_LOAD(&shm->words[slot]);
  if (packbuf_i_shm_phase(word) != PACKBUF_I_SHM_FREE ||
      !PACKBUF_I_EXCHANGE(&shm->words[slot], &word, packbuf_i_shm_word(word, shm->session, PACKBUF_I_SHM_FREEING)))
    return 0;
  extent = PACKBUF_I_LOAD(&shm->slots[slot].extent);
  packbuf_i_shm_release_units(shm, slot, packbuf_i_shm_extent_first(extent), packbuf_i_shm_extent_units(extent));
  PACKBUF_I_STORE(&shm->slots[slot].extent, 0u);
  PACKBUF_I_STORE(&shm->words[slot], packbuf_i_shm_freed_word(word));
  return 1;
}

/* Claims a run of units for a slot that is CLAIMED: next fit from where this handle was last. The extent is written
 * before the first unit is claimed: intent first, so that recovery finds them. 0: there is no such run. Of several who
 * want the same units the one furthest on gets all of its own, so somebody always goes on. */
static int packbuf_i_shm_claim_units(packbuf_i_shm *shm, uint32_t slot, uint64_t units) {
  const uint64_t all = shm->facts.units;
  uint64_t *const extent = &shm->slots[slot].extent;
  uint64_t at = __atomic_load_n(&shm->next_unit, __ATOMIC_RELAXED), run = 0, seen = 0;
  if (packbuf_i_shm_keep_units(shm, slot, units)) return 1;
  if (units == 0 || units > all) {
    PACKBUF_I_STORE(extent, 0u);
    return units == 0;
  }
  while (seen <= 2 * all) {
    uint64_t next, got;
    uint32_t owner;
    if (at > all - units) { /* no run of this length begins here or behind */
      seen += all - (at < all ? at : all) + 1;
      at = run = 0;
      continue;
    }
    owner = PACKBUF_I_LOAD(&shm->owners[at + run]);
    if (owner && packbuf_i_shm_take_units(shm, owner)) owner = PACKBUF_I_LOAD(&shm->owners[at + run]);
    if (owner) {
      next = packbuf_i_shm_behind(shm, at + run, owner);
    } else if (++run < units) {
      continue;
    } else {
      PACKBUF_I_STORE(extent, packbuf_i_shm_extent(at, units));
      got = packbuf_i_shm_claim_run(shm, slot, at, units);
      if (got == units) {
        __atomic_store_n(&shm->next_unit, at + units, __ATOMIC_RELAXED);
        return 1;
      }
      packbuf_i_shm_release_units(shm, slot, at, got);
      next = at + got + 1;
    }
    seen += next - at;
    at = next;
    run = 0;
  }
  PACKBUF_I_STORE(extent, 0u);
  return 0;
}

#endif /* PACKBUF_I_SHM */
