/* transport/shm_session.c: who uses a shm store, and what becomes of what the dead held. A session is a byte of the
 * file, locked by F_OFD_SETLK: the lock is free exactly when the last process that has the open file is gone, in any
 * PID namespace, and no store instruction of it follows. No process id and no heartbeat decides anything.
 * May use: shm_layout. Must not know: directory, objects; how a slot is freed is said ahead. */
#if PACKBUF_I_SHM
#include <limits.h>
#include <linux/futex.h>

/* The word of a slot: incarnation 32 bits, session 16, phase 8. It alone says what state the slot is in:
 * FREE -> CLAIMED(session) -> LIVE -> RETIRED -> FREEING(session) -> FREE of the next incarnation; CLAIMED -> FREEING
 * when a put is given up. */
enum {
  PACKBUF_I_SHM_FREE = 0,
  PACKBUF_I_SHM_CLAIMED = 1,
  PACKBUF_I_SHM_LIVE = 2,
  PACKBUF_I_SHM_RETIRED = 3,
  PACKBUF_I_SHM_FREEING = 4
};

static unsigned packbuf_i_shm_phase(uint64_t word) { return (unsigned)(word & 255); }
static uint32_t packbuf_i_shm_session_of(uint64_t word) { return (uint32_t)(word >> 16 & 65535); }
static uint64_t packbuf_i_shm_word(uint64_t old, uint32_t session, unsigned phase) {
  return (old & 0xFFFFFFFF00000000u) | (uint64_t)session << 16 | phase;
}

/* FREE, of the next incarnation. */
static uint64_t packbuf_i_shm_freed_word(uint64_t old) { return (old & 0xFFFFFFFF00000000u) + ((uint64_t)1 << 32); }

/* shm_slots.c: finishes a slot that this session has FREEING; wakes nobody. */
static void packbuf_i_shm_free_slot(packbuf_i_shm *shm, uint32_t slot);
/* And: frees a slot that is RETIRED and that nobody has pinned. */
static void packbuf_i_shm_try_free(packbuf_i_shm *shm, uint32_t slot);

/* ---- the clock ---- */

/* One signed number behind blanks; *text moves behind it. */
static int64_t packbuf_i_shm_number(const char **text) {
  int64_t sum = 0;
  int negative = 0;
  while (**text == ' ' || **text == '\t') ++*text;
  if (**text == '-') negative = 1, ++*text;
  for (; **text >= '0' && **text <= '9' && sum < ((int64_t)1 << 40); ++*text) sum = sum * 10 + (**text - '0');
  return negative ? -sum : sum;
}

/* What this time namespace adds to the monotonic clock: processes of several share times in the store. */
static uint64_t packbuf_i_shm_clock_offset(void) {
  char text[256];
  const char *at = text;
  ssize_t size;
  const int fd = open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC);
  int64_t seconds, rest;
  if (fd < 0) return 0;
  size = read(fd, text, sizeof text - 1);
  (void)close(fd);
  if (size < 10) return 0;
  text[size] = 0;
  if (memcmp(text, "monotonic", 9) != 0) return 0;
  at += 9;
  seconds = packbuf_i_shm_number(&at);
  rest = packbuf_i_shm_number(&at);
  return (uint64_t)seconds * 1000000000u + (uint64_t)rest;
}

/* The monotonic clock of the root time namespace. */
static uint64_t packbuf_i_shm_now(const packbuf_i_shm *shm) { return packbuf_now() - shm->clock_offset; }

/* ---- waiting: steps of at most 20 ms, so that a wake-up lost with a killed sender does no harm ---- */

/* Something became free. */
static void packbuf_i_shm_wake(packbuf_i_shm *shm) {
  PACKBUF_I_ADD(&shm->header->freed, 1u);
  if (PACKBUF_I_LOAD(&shm->header->waiting) && PACKBUF_I_SWAP(&shm->header->waiting, 0u))
    (void)syscall(SYS_futex, &shm->header->freed, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Waits until `freed` is not `seen` any more, the deadline, or 20 ms. 0: the deadline has passed. */
static int packbuf_i_shm_wait(packbuf_i_shm *shm, uint32_t seen, uint64_t deadline) {
  struct timespec step;
  const uint64_t now = packbuf_now();
  uint64_t left = 20000000;
  if (deadline <= now) return 0;
  if (deadline - now < left) left = deadline - now;
  step.tv_sec = 0;
  step.tv_nsec = (long)left;
  PACKBUF_I_STORE(&shm->header->waiting, 1u);
  (void)syscall(SYS_futex, &shm->header->freed, FUTEX_WAIT, seen, &step, NULL, 0);
  return 1;
}

/* ---- what people are told ---- */

/* "BEFORE NUMBER AFTER NAME". The name comes from the store, so it may hold anything. */
static void packbuf_i_shm_say(packbuf_i_shm *shm, packbuf_log_level level, const char *before, uint64_t number,
                              const char *after, const char *name) {
  char text[160];
  packbuf_i_line line = packbuf_i_line_in(text, sizeof text);
  if (!shm->log) return;
  packbuf_i_line_text(&line, before);
  packbuf_i_line_number(&line, number);
  packbuf_i_line_text(&line, after);
  packbuf_i_line_percent(&line, name, packbuf_i_length(name, 40), "/:+=@ ");
  (void)packbuf_i_line_close(&line);
  packbuf_i_locked(&shm->telling);
  shm->log(shm->log_context, level, text);
  packbuf_i_unlocked(&shm->telling);
}

/* ---- sessions ---- */

static packbuf_status packbuf_i_shm_open_still(packbuf_i_shm *shm, packbuf_error *error) {
  if (!PACKBUF_I_LOAD(&shm->header->closed)) return PACKBUF_OK;
  return packbuf_i_call_fail(error, PACKBUF_DISCONNECTED, "the store was taken away");
}

static uint64_t *packbuf_i_shm_pin_word(packbuf_i_shm *shm, uint32_t slot, uint32_t session) {
  return shm->pins + (uint64_t)slot * shm->pin_words + session / 64;
}

/* Takes back all that session `dead` held; its lock is ours, so it is dead (or is this one, which ends), and nobody can
 * become it meanwhile. Killed in here, the lock is free again and the next one does the rest: each step may be done
 * twice. Slots that it had claimed, or was freeing, are freed under this session's name; LIVE and RETIRED are
 * nobody's. */
static void packbuf_i_shm_recover(packbuf_i_shm *shm, uint32_t dead) {
  const uint64_t bit = (uint64_t)1 << dead % 64;
  uint64_t count = 0;
  for (uint32_t slot = 0; slot < shm->facts.slots; slot++) {
    uint64_t word = PACKBUF_I_LOAD(&shm->words[slot]), *const pin = packbuf_i_shm_pin_word(shm, slot, dead);
    const unsigned phase = packbuf_i_shm_phase(word);
    if ((phase == PACKBUF_I_SHM_CLAIMED || phase == PACKBUF_I_SHM_FREEING) && packbuf_i_shm_session_of(word) == dead) {
      const uint64_t mine = packbuf_i_shm_word(word, shm->session, PACKBUF_I_SHM_FREEING);
      if (PACKBUF_I_EXCHANGE(&shm->words[slot], &word, mine))
        packbuf_i_shm_free_slot(shm, slot), count++, packbuf_i_shm_wake(shm);
    }
    if (PACKBUF_I_LOAD(pin) & bit) {
      PACKBUF_I_AND(pin, ~bit);
      count++;
      packbuf_i_shm_try_free(shm, slot);
    }
  }
  if (count) {
    char name[sizeof shm->sessions[dead].name];
    memcpy(name, shm->sessions[dead].name, sizeof name);
    name[sizeof name - 1] = 0;
    PACKBUF_I_ADD(&shm->header->recovered, count);
    packbuf_i_shm_say(shm, PACKBUF_LOG_INFO, "shm: took back ", count, " slots and leases of ", name);
  }
  PACKBUF_I_STORE(&shm->sessions[dead].used, 0u);
}

/* Recovers all sessions whose processes are gone. One thread of the handle at a time: locks belong to the handle, so a
 * second thread would be given a lock that the first one has. */
static void packbuf_i_shm_bury(packbuf_i_shm *shm) {
  if (pthread_mutex_trylock(&shm->sweeping.mutex) != 0) return;
  for (uint32_t i = 0; i < shm->facts.sessions; i++) {
    const off_t byte = PACKBUF_I_SHM_LOCKS + (off_t)i;
    if (i == shm->session || !PACKBUF_I_LOAD(&shm->sessions[i].used)) continue;
    if (!packbuf_i_shm_lock(shm->fd, byte, F_WRLCK)) continue;
    packbuf_i_shm_recover(shm, i);
    (void)packbuf_i_shm_lock(shm->fd, byte, F_UNLCK);
  }
  packbuf_i_unlocked(&shm->sweeping);
}

/* Becomes a session. What a dead one of this number left is freed under the number that is now ours. */
static packbuf_status packbuf_i_shm_join(packbuf_i_shm *shm, const char *name, packbuf_error *error) {
  for (int round = 0; round < 8; round++) { /* who looks for the dead holds a byte for a moment */
    for (uint32_t i = 0; i < shm->facts.sessions; i++) {
      packbuf_i_shm_session *const session = &shm->sessions[i];
      size_t size = name ? strlen(name) : 0;
      if (!packbuf_i_shm_lock(shm->fd, PACKBUF_I_SHM_LOCKS + (off_t)i, F_WRLCK)) continue;
      shm->session = i;
      if (PACKBUF_I_LOAD(&session->used)) packbuf_i_shm_recover(shm, i);
      shm->incarnation = PACKBUF_I_ADD(&session->incarnation, 1u) + 1;
      if (size > sizeof session->name - 1) size = sizeof session->name - 1;
      memset(session->name, 0, sizeof session->name);
      if (size) memcpy(session->name, name, size);
      session->process = (uint32_t)getpid();
      session->opened_at = packbuf_i_shm_now(shm);
      PACKBUF_I_STORE(&session->used, 1u); /* before anything is claimed or pinned */
      return PACKBUF_OK;
    }
    packbuf_i_sleep_until(packbuf_now() + 1000000);
  }
  return packbuf_i_call_fail(error, PACKBUF_FULL, "the store has no session left (options.sessions when it is made)");
}

/* Ends the session; what it still holds is taken back. The lock goes with the file. */
static void packbuf_i_shm_leave(packbuf_i_shm *shm) { packbuf_i_shm_recover(shm, shm->session); }

#endif /* PACKBUF_I_SHM */
