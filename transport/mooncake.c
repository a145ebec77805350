/* transport/mooncake.c: the store `mooncake`: the distributed engine of that name. Batches in their callers' threads:
 * slices with trailers for puts, memory for gets, and what is tried again until the deadline; and the driver.
 * May use: mooncake_engine, mooncake_items, text (URIs, lines), pool, asked, driver.h.
 * Must not know: handles, batches of rows. */

/* ---- a batch, in its caller's thread ---- */

typedef struct packbuf_i_mooncake_run {
  packbuf_i_mooncake *store;
  packbuf_call *call;
  packbuf_i_mooncake_group *group;
  packbuf_item *items; /* those of the group */
  uint64_t first;      /* index of items[0] in the batch */
  uint64_t until;      /* the deadline, or a little later: what is asked without waiting is asked all the same */
} packbuf_i_mooncake_run;

static void packbuf_i_mooncake_begin(packbuf_i_mooncake_entry *entry, const packbuf_item *item,
                                     packbuf_i_mooncake_step step) {
  entry->key_size = strlen(item->key);
  if (entry->key_size > PACKBUF_MAX_KEY) entry->key_size = PACKBUF_MAX_KEY;
  entry->asked = item->generation;
  entry->force = (item->flags & PACKBUF_REMOVE_FORCE) != 0;
  entry->status = PACKBUF_TIMEOUT; /* until somebody says otherwise */
  entry->step = step;
  packbuf_i_mooncake_name(entry->name, item->key, entry->key_size, item->generation);
}

/* Cancelled items are done before anything is done for them. */
static int packbuf_i_mooncake_cancelled(const packbuf_i_mooncake_run *run, uint64_t i) {
  packbuf_i_mooncake_entry *entry = &run->group->entries[i];
  if (!run->call->cancelled || !run->call->cancelled(run->call, run->first + i)) return 0;
  entry->status = PACKBUF_CANCELLED;
  entry->step = PACKBUF_I_MOONCAKE_DONE;
  return 1;
}

static void packbuf_i_mooncake_answer(const packbuf_i_mooncake_run *run, uint64_t i, packbuf_status status) {
  run->items[i].status = status;
  run->call->done(run->call, run->first + i);
}

static void packbuf_i_mooncake_tell(packbuf_stat *stat, const packbuf_i_mooncake_record *record) {
  const uint64_t micros = packbuf_i_wall_micros();
  memset(stat, 0, sizeof *stat);
  stat->generation = record->generation;
  stat->length = record->length;
  stat->head_length = record->head_length;
  stat->age_ms = micros > record->generation >> 12 ? (micros - (record->generation >> 12)) / 1000u : 0;
  stat->left_ms = UINT64_MAX;
  stat->head_checksum = record->head_checksum;
  stat->flags = record->flags;
  stat->kind = record->kind;
  memcpy(stat->fingerprint, record->fingerprint, PACKBUF_FINGERPRINT);
}

/* Takes what is known of an entry when nobody waits for it any more. 1: it is done; 0: its worker still has it. A put
 * whose object is there is a put, though its pointer is not yet. */
static int packbuf_i_mooncake_settled(const packbuf_i_mooncake_run *run, uint64_t i, packbuf_status *status) {
  const packbuf_i_mooncake_entry *entry = &run->group->entries[i];
  int done;
  packbuf_i_locked(&run->store->lock);
  done = entry->step == PACKBUF_I_MOONCAKE_DONE;
  *status = done || entry->step == PACKBUF_I_MOONCAKE_POINT ? entry->status : PACKBUF_TIMEOUT;
  packbuf_i_unlocked(&run->store->lock);
  return done;
}

/* ---- removals that have not happened yet ---- */

/* Fills a group with removals that this round has not tried; how many. */
static uint64_t packbuf_i_mooncake_gather(packbuf_i_mooncake *m, packbuf_i_mooncake_group *group, uint64_t round) {
  uint64_t count = 0;
  packbuf_i_locked(&m->lock);
  for (size_t i = 0; i < PACKBUF_I_MOONCAKE_CHAINS && m->parked; i++)
    for (packbuf_i_mooncake_note *note = m->notes[i]; note && count < group->count; note = note->next) {
      packbuf_i_mooncake_entry *entry;
      if (note->why == PACKBUF_I_MOONCAKE_NEWEST || note->tried >= round) continue;
      entry = &group->entries[count++];
      note->tried = round;
      entry->key_size = note->key_size;
      entry->asked = note->record.generation;
      entry->why = note->why;
      entry->force = note->why == PACKBUF_I_MOONCAKE_LATE;
      entry->step = PACKBUF_I_MOONCAKE_RETRY;
      packbuf_i_mooncake_name(entry->name, (const char *)(const void *)(note + 1), note->key_size, entry->asked);
    }
  packbuf_i_unlocked(&m->lock);
  return count;
}

/* Tries each of them once; how many went. */
static uint64_t packbuf_i_mooncake_retry_all(packbuf_i_mooncake *m, uint64_t until) {
  uint64_t round, parked, count = 1, gone = 0;
  int in_time = 1;
  packbuf_i_locked(&m->lock);
  round = ++m->round;
  parked = m->parked;
  packbuf_i_unlocked(&m->lock);
  while (parked && in_time && count) {
    packbuf_i_mooncake_group *group = packbuf_i_mooncake_group_of(
        m, parked < PACKBUF_I_MOONCAKE_WINDOW ? parked : (uint64_t)PACKBUF_I_MOONCAKE_WINDOW);
    if (!group) break;
    count = packbuf_i_mooncake_gather(m, group, round);
    in_time = packbuf_i_mooncake_step_all(m, group, PACKBUF_I_MOONCAKE_RETRY, until);
    for (uint64_t i = 0; in_time && i < count; i++) gone += group->entries[i].status == PACKBUF_OK;
    packbuf_i_mooncake_let(m, group);
  }
  return gone;
}

/* ---- puts ---- */

/* The item's slice, where the pool's pages leave room for a trailer behind its bytes. Bytes of the caller's that the
 * trailer covers are kept: they come back when the put fails. */
static int packbuf_i_mooncake_in_place(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry,
                                       const packbuf_item *item) {
  const packbuf_slice *slice = item->slice;
  uint64_t at, room, visible;
  if (!slice || !item->from || !packbuf_i_pool_owns(m->pool, slice)) return 0;
  at = (uint64_t)((const uint8_t *)item->from - (const uint8_t *)slice->data);
  room = (slice->size + 4095) / 4096 * 4096;
  if (at > slice->size || entry->size > room - at) return 0;
  visible = slice->size - at - item->size;
  if (visible > entry->size - item->size) visible = entry->size - item->size;
  entry->at = (uint8_t *)slice->data + at;
  entry->saved = (uint8_t)visible;
  memcpy(entry->tail, entry->at + item->size, (size_t)visible);
  return 1;
}

/* Takes a slice of the pool for an entry that is of this size. */
static packbuf_status packbuf_i_mooncake_take(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry, uint32_t account,
                                              uint64_t deadline) {
  packbuf_status status = packbuf_pool_take(m->pool, account, &entry->size, 1, deadline, &entry->slice, NULL);
  entry->at = (uint8_t *)entry->slice.data;
  return status;
}

/* Object and trailer, as they will be written. */
static packbuf_status packbuf_i_mooncake_prepare(packbuf_i_mooncake *m, packbuf_i_mooncake_entry *entry,
                                                 const packbuf_item *item, uint64_t deadline) {
  packbuf_i_mooncake_record *record = &entry->record;
  entry->size = packbuf_i_mooncake_space(item->size);
  if (!entry->size) return PACKBUF_CAPACITY;
  if (!packbuf_i_mooncake_in_place(m, entry, item)) {
    const packbuf_status status = packbuf_i_mooncake_take(m, entry, item->account, deadline);
    if (status) return status;
    if (item->size) memcpy(entry->at, item->from, (size_t)item->size);
    (void)PACKBUF_I_ADD(&m->copies, 1);
  }
  memset(record, 0, sizeof *record);
  record->generation = packbuf_i_mooncake_draw(m);
  record->length = item->size;
  record->flags = item->flags;
  if (item->about) {
    record->head_length = item->about->head_length;
    record->head_checksum = item->about->head_checksum;
    record->kind = item->about->kind;
    memcpy(record->fingerprint, item->about->fingerprint, PACKBUF_FINGERPRINT);
  }
  packbuf_i_mooncake_name(entry->name, item->key, entry->key_size, record->generation);
  memset(entry->at + item->size, 0, (size_t)(entry->size - item->size - PACKBUF_I_MOONCAKE_RECORD));
  packbuf_i_mooncake_write(entry->at + entry->size - PACKBUF_I_MOONCAKE_RECORD, 0, record);
  return PACKBUF_OK;
}

/* How many entries ended with this status, and had got as far as a worker. */
static uint64_t packbuf_i_mooncake_ended(const packbuf_i_mooncake_group *group, packbuf_status status) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < group->count; i++)
    count += group->entries[i].step == PACKBUF_I_MOONCAKE_DONE && group->entries[i].status == status &&
             group->entries[i].tried;
  return count;
}

/* Those are put back to a step. */
static void packbuf_i_mooncake_again(packbuf_i_mooncake_group *group, packbuf_status status,
                                     packbuf_i_mooncake_step step) {
  for (uint64_t i = 0; i < group->count; i++) {
    packbuf_i_mooncake_entry *entry = &group->entries[i];
    if (entry->step != PACKBUF_I_MOONCAKE_DONE || entry->status != status || !entry->tried) continue;
    entry->step = step;
    entry->again = 1;
  }
}

/* Between two tries of what waits for somebody else; longer each time. 0: the deadline has passed. */
static int packbuf_i_mooncake_pause(const packbuf_i_mooncake_run *run, uint64_t *pause) {
  const uint64_t now = packbuf_now(), deadline = run->call->deadline;
  if (now >= deadline) return 0;
  if (*pause == 0) {
    *pause = 2000000;
    (void)PACKBUF_I_ADD(&run->store->waits, 1);
  }
  packbuf_i_sleep_until(deadline - now < *pause ? deadline : now + *pause);
  if (*pause < 64000000) *pause *= 2;
  return packbuf_now() < deadline;
}

/* Answers puts that have ended, but for those that wait for room in the engine. all: those too, and those that nobody
 * waits for any more. Items that were answered have no key in their entry. */
static void packbuf_i_mooncake_put_harvest(packbuf_i_mooncake_run *run, uint64_t count, int all) {
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_mooncake_entry *entry = &run->group->entries[i];
    packbuf_status status;
    const int done = packbuf_i_mooncake_settled(run, i, &status);
    if (!entry->key_size || (!all && (!done || (status == PACKBUF_FULL && entry->tried)))) continue;
    if (!done && status && entry->again) status = PACKBUF_FULL;
    if (!status) packbuf_i_mooncake_tell(&run->items[i].stat, &entry->record);
    else if (entry->saved) memcpy(entry->at + run->items[i].size, entry->tail, entry->saved);
    if (done) entry->key_size = 0;
    packbuf_i_mooncake_answer(run, i, status);
  }
}

/* Makes puts of as many items as the pool has room for at once, and the window has; how many. */
static uint64_t packbuf_i_mooncake_put_begin(packbuf_i_mooncake_run *run) {
  packbuf_i_mooncake_group *const group = run->group;
  uint64_t count = 0, ready = 0;
  for (; count < group->count; count++) {
    packbuf_i_mooncake_entry *entry = &group->entries[count];
    const packbuf_item *item = &run->items[count];
    packbuf_i_mooncake_begin(entry, item, PACKBUF_I_MOONCAKE_DONE);
    if (packbuf_i_mooncake_cancelled(run, count)) continue;
    entry->status =
        packbuf_i_mooncake_prepare(run->store, entry, item, ready ? PACKBUF_NO_WAIT : run->call->deadline);
    if (ready && (entry->status == PACKBUF_FULL || entry->status == PACKBUF_QUOTA)) break;
    if (entry->status) continue;
    entry->status = PACKBUF_TIMEOUT;
    entry->step = PACKBUF_I_MOONCAKE_PUT;
    ready++;
  }
  return count;
}

/* Puts so many items, and what waits for room again and again until the deadline: what waits to be removed goes first,
 * and whoever no longer wants his item is asked each time. How many. */
static uint64_t packbuf_i_mooncake_put_window(packbuf_i_mooncake_run *run) {
  packbuf_i_mooncake *const m = run->store;
  packbuf_i_mooncake_group *const group = run->group;
  const uint64_t count = packbuf_i_mooncake_put_begin(run);
  uint64_t pause = 0;
  int in_time = packbuf_i_mooncake_step_all(m, group, PACKBUF_I_MOONCAKE_PUT, run->until);
  while (in_time && packbuf_i_mooncake_ended(group, PACKBUF_FULL)) {
    packbuf_i_mooncake_put_harvest(run, count, 0);
    if (!packbuf_i_mooncake_retry_all(m, run->until) && !packbuf_i_mooncake_pause(run, &pause)) break;
    for (uint64_t i = 0; i < count; i++)
      if (group->entries[i].key_size) (void)packbuf_i_mooncake_cancelled(run, i);
    packbuf_i_mooncake_again(group, PACKBUF_FULL, PACKBUF_I_MOONCAKE_PUT);
    in_time = packbuf_i_mooncake_step_all(m, group, PACKBUF_I_MOONCAKE_PUT, run->until);
  }
  packbuf_i_mooncake_put_harvest(run, count, 1);
  return count;
}

/* ---- gets ---- */

/* Keeps a slice as a lease. */
static packbuf_status packbuf_i_mooncake_lease(packbuf_i_mooncake *m, packbuf_slice *slice, const uint8_t *data,
                                               uint64_t size, packbuf_lease *lease) {
  packbuf_slice *kept = (packbuf_slice *)packbuf_i_heap(&m->allocator, NULL, 0, sizeof *kept);
  if (!kept) return PACKBUF_OUT_OF_MEMORY;
  *kept = *slice;
  memset(slice, 0, sizeof *slice);
  lease->data = data;
  lease->size = size;
  lease->token = (uint64_t)(uintptr_t)kept;
  return PACKBUF_OK;
}

static void packbuf_i_mooncake_let_go(void *state, uint64_t token) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  packbuf_slice *const kept = (packbuf_slice *)(uintptr_t)token;
  packbuf_slice_release(kept);
  (void)packbuf_i_heap(&m->allocator, kept, sizeof *kept, 0);
}

/* A lease on what is asked: where it lies when it is one run, else a slice of its own. */
static packbuf_status packbuf_i_mooncake_lease_asked(const packbuf_i_mooncake_run *run, packbuf_i_mooncake_entry *entry,
                                                     packbuf_item *item, const packbuf_i_wanted_bytes *asked) {
  packbuf_i_mooncake *const m = run->store;
  packbuf_i_mooncake_entry cut;
  packbuf_status status;
  if (asked->run)
    return packbuf_i_mooncake_lease(m, &entry->slice, entry->at + asked->first, asked->size, &item->lease);
  memset(&cut, 0, sizeof cut);
  cut.size = asked->size;
  status = packbuf_i_mooncake_take(m, &cut, item->account, run->call->deadline);
  if (status) return status;
  packbuf_i_item_copy(item, entry->at, asked->size, cut.at);
  status = packbuf_i_mooncake_lease(m, &cut.slice, cut.at, asked->size, &item->lease);
  packbuf_slice_release(&cut.slice);
  return status;
}

/* Hands what arrived to its item. */
static packbuf_status packbuf_i_mooncake_hand_over(const packbuf_i_mooncake_run *run, packbuf_i_mooncake_entry *entry,
                                                   packbuf_item *item) {
  packbuf_i_wanted_bytes asked;
  packbuf_status status;
  packbuf_i_mooncake_tell(&item->stat, &entry->record);
  status = packbuf_i_item_asks(item, entry->record.length, &asked);
  if (status) return status;
  if (item->into) packbuf_i_item_copy(item, entry->at, asked.size, (uint8_t *)item->into);
  else status = packbuf_i_mooncake_lease_asked(run, entry, item, &asked);
  if (!status) item->got = asked.size;
  return status;
}

/* Takes memory for those that wait for it. How many can be fetched. */
static uint64_t packbuf_i_mooncake_find_room(packbuf_i_mooncake_run *run) {
  uint64_t ready = 0;
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_entry *entry = &run->group->entries[i];
    packbuf_status status;
    if (entry->step != PACKBUF_I_MOONCAKE_SIZED) continue;
    status = packbuf_i_mooncake_take(run->store, entry, run->items[i].account,
                                     ready ? PACKBUF_NO_WAIT : run->call->deadline);
    if (ready && (status == PACKBUF_FULL || status == PACKBUF_QUOTA)) break; /* memory of the others comes back first */
    entry->status = status ? status : PACKBUF_TIMEOUT;
    entry->step = status ? PACKBUF_I_MOONCAKE_DONE : PACKBUF_I_MOONCAKE_FETCH;
    ready += !status;
  }
  return ready;
}

/* Answers items that have ended, and gives their memory back. all: those too that nobody waits for any more. Items that
 * were answered have no key in their entry. */
static void packbuf_i_mooncake_harvest(packbuf_i_mooncake_run *run, int all) {
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_entry *entry = &run->group->entries[i];
    packbuf_item *item = &run->items[i];
    packbuf_status status;
    const int done = packbuf_i_mooncake_settled(run, i, &status);
    if (!entry->key_size || (!done && !all)) continue;
    if (done && status == PACKBUF_NOT_FOUND && !entry->asked && !entry->again && entry->at && !all) {
      packbuf_slice_release(&entry->slice); /* replaced since the pointer was read: look once more */
      entry->again = 1;
      entry->step = PACKBUF_I_MOONCAKE_LOOK;
      continue;
    }
    if (!status && run->call->operation == PACKBUF_GET) status = packbuf_i_mooncake_hand_over(run, entry, item);
    else if (!status) packbuf_i_mooncake_tell(&item->stat, &entry->record);
    if (done) {
      packbuf_slice_release(&entry->slice);
      entry->key_size = 0;
    }
    packbuf_i_mooncake_answer(run, i, status);
  }
}

static void packbuf_i_mooncake_get_window(packbuf_i_mooncake_run *run) {
  const packbuf_i_mooncake_step step =
      run->call->operation == PACKBUF_GET ? PACKBUF_I_MOONCAKE_LOOK : PACKBUF_I_MOONCAKE_STAT;
  int in_time;
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_begin(&run->group->entries[i], &run->items[i], step);
    (void)packbuf_i_mooncake_cancelled(run, i);
  }
  do {
    in_time = packbuf_i_mooncake_step_all(run->store, run->group, step, run->until);
    if (in_time && step == PACKBUF_I_MOONCAKE_STAT)
      in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_LOOK, run->until);
    if (!in_time) break;
    packbuf_i_mooncake_harvest(run, 0);
    if (packbuf_i_mooncake_find_room(run))
      in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_FETCH, run->until);
    if (in_time) packbuf_i_mooncake_harvest(run, 0);
    for (uint64_t i = 0; in_time && i < run->group->count; i++)
      if (run->group->entries[i].key_size) break;
      else if (i + 1 == run->group->count) return;
  } while (in_time);
  packbuf_i_mooncake_harvest(run, 1);
}

/* ---- removals ---- */

static void packbuf_i_mooncake_remove_window(packbuf_i_mooncake_run *run) {
  uint64_t pause = 0;
  int in_time;
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_begin(&run->group->entries[i], &run->items[i], PACKBUF_I_MOONCAKE_REMOVE);
    (void)packbuf_i_mooncake_cancelled(run, i);
  }
  in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_REMOVE, run->until);
  while (in_time && packbuf_i_mooncake_ended(run->group, PACKBUF_LEASED) && packbuf_i_mooncake_pause(run, &pause)) {
    packbuf_i_mooncake_again(run->group, PACKBUF_LEASED, PACKBUF_I_MOONCAKE_REMOVE);
    in_time = packbuf_i_mooncake_step_all(run->store, run->group, PACKBUF_I_MOONCAKE_REMOVE, run->until);
  }
  for (uint64_t i = 0; i < run->group->count; i++) {
    packbuf_i_mooncake_entry *entry = &run->group->entries[i];
    packbuf_status status;
    const int done = packbuf_i_mooncake_settled(run, i, &status);
    if (!done && entry->again) status = PACKBUF_LEASED;
    if (done && !status) packbuf_i_mooncake_tell(&run->items[i].stat, &entry->record);
    packbuf_i_mooncake_answer(run, i, status);
  }
}

/* ---- looking after it ---- */

#define PACKBUF_I_MOONCAKE_GRACE 50000000u /* ns that a call may take whose deadline has passed already */

static uint64_t packbuf_i_mooncake_until(uint64_t deadline) {
  const uint64_t soon = packbuf_now() + PACKBUF_I_MOONCAKE_GRACE;
  return deadline > soon ? deadline : soon;
}

static packbuf_status packbuf_i_mooncake_collect(void *state, uint64_t deadline, uint64_t *left, packbuf_error *error) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  (void)error;
  (void)packbuf_i_mooncake_retry_all(m, packbuf_i_mooncake_until(deadline));
  packbuf_i_locked(&m->lock);
  if (left) *left = m->parked;
  packbuf_i_unlocked(&m->lock);
  return PACKBUF_OK;
}

/* ---- the driver ---- */

static void packbuf_i_mooncake_run_call(void *state, packbuf_call *call) {
  packbuf_i_mooncake_run run;
  run.store = (packbuf_i_mooncake *)state;
  run.call = call;
  run.until = packbuf_i_mooncake_until(call->deadline);
  for (run.first = 0; run.first < call->count;) {
    uint64_t count = call->count - run.first;
    packbuf_status status = PACKBUF_TIMEOUT;
    if (count > PACKBUF_I_MOONCAKE_WINDOW) count = PACKBUF_I_MOONCAKE_WINDOW;
    run.items = call->items + run.first;
    run.group = NULL;
    if (packbuf_now() < run.until) {
      run.group = packbuf_i_mooncake_group_of(run.store, count);
      status = PACKBUF_OUT_OF_MEMORY;
    }
    if (!run.group) {
      for (uint64_t i = 0; i < count; i++) packbuf_i_mooncake_answer(&run, i, status);
    } else {
      if (call->operation == PACKBUF_PUT) count = packbuf_i_mooncake_put_window(&run);
      else if (call->operation == PACKBUF_REMOVE) packbuf_i_mooncake_remove_window(&run);
      else packbuf_i_mooncake_get_window(&run);
      packbuf_i_mooncake_let(run.store, run.group);
    }
    run.first += count;
  }
}

static packbuf_status packbuf_i_mooncake_option(void *context, const packbuf_i_uri_option *option) {
  packbuf_i_mooncake_settings *const to = (packbuf_i_mooncake_settings *)context;
  const size_t size = strlen(option->value);
  char *text = NULL;
  if (strcmp(option->name, "host") == 0) text = to->host;
  else if (strcmp(option->name, "metadata") == 0) text = to->metadata;
  else if (strcmp(option->name, "protocol") == 0) text = to->protocol;
  else if (strcmp(option->name, "device") == 0) text = to->device;
  if (text) memcpy(text, option->value, size + 1);
  else if (strcmp(option->name, "segment") == 0)
    return packbuf_i_parse_size(option->value, size, UINT64_MAX, &to->segment) ? PACKBUF_OK : PACKBUF_INVALID_ARGUMENT;
  else if (strcmp(option->name, "buffer") == 0)
    return packbuf_i_parse_size(option->value, size, UINT64_MAX, &to->buffer) ? PACKBUF_OK : PACKBUF_INVALID_ARGUMENT;
  else return PACKBUF_NOT_FOUND;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_mooncake_open(void **state, const char *uri, const packbuf_store_options *options,
                                              packbuf_error *error) {
  packbuf_store_options with = *options;
  packbuf_i_mooncake_settings settings;
  packbuf_allocator allocator = {NULL, NULL};
  packbuf_i_mooncake_api api;
  packbuf_i_mooncake *m;
  packbuf_status status;
  memset(&settings, 0, sizeof settings);
  memcpy(settings.host, "localhost", 10);
  memcpy(settings.metadata, "P2PHANDSHAKE", 13);
  memcpy(settings.protocol, "tcp", 4);
  settings.segment = (uint64_t)512 << 20;
  settings.buffer = (uint64_t)16 << 20;
  status =
      packbuf_i_uri_options(uri, &with, settings.uri, sizeof settings.uri, packbuf_i_mooncake_option, &settings, error);
  if (status) return status;
  if (strncmp(settings.uri, "mooncake://", 11) != 0 || !settings.uri[11])
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "mooncake://HOST:PORT is the address of the master", 9,
                          PACKBUF_NOWHERE);
  if (!with.pool) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "the engine moves slices of a pool");
  status = packbuf_i_mooncake_load(&api, error);
  if (status) return status;
  if (with.allocator) allocator = *with.allocator;
  m = (packbuf_i_mooncake *)packbuf_i_heap(&allocator, NULL, 0, sizeof *m);
  if (!m) return packbuf_i_no_memory(error);
  m->api = api;
  m->allocator = allocator;
  m->settings = settings;
  m->log = with.log;
  m->log_context = with.log_context;
  m->pool = with.pool;
  m->end = &m->first;
  if (!packbuf_i_lock_start(&m->lock) || !packbuf_i_signal_start(&m->work) || !packbuf_i_signal_start(&m->ended)) {
    (void)packbuf_i_heap(&allocator, m, sizeof *m, 0);
    return packbuf_i_no_memory(error);
  }
  status = packbuf_i_mooncake_connect(m, &with, error);
  if (status) packbuf_i_mooncake_end(m, status == PACKBUF_TIMEOUT);
  else *state = m;
  return status;
}

static void packbuf_i_mooncake_close(void *state) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  uint64_t left = 0;
  (void)packbuf_i_mooncake_collect(state, packbuf_deadline_in(5000), &left, NULL);
  if (left && m->log)
    m->log(m->log_context, PACKBUF_LOG_WARNING, "mooncake: objects stay whose removal leases of the engine delayed");
  packbuf_i_mooncake_end(m, 0);
}

static packbuf_status packbuf_i_mooncake_describe(void *state, packbuf_store_info *info, uint64_t deadline,
                                                  packbuf_error *error) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  memset(info, 0, sizeof *info);
  info->transport = "mooncake";
  memcpy(info->uri, m->settings.uri, sizeof info->uri);
  info->capabilities = m->settings.segment ? 0 : PACKBUF_CAN_OUTLIVE; /* else objects may lie in this process's */
  info->size = info->used = info->objects = info->most_objects = UINT64_MAX;
  return packbuf_i_mooncake_step_once(m, PACKBUF_I_MOONCAKE_HEALTH, packbuf_i_mooncake_until(deadline),
                                      "Mooncake's client does not reach its master", error);
}

static void packbuf_i_mooncake_count(void *state, packbuf_counters *counters) {
  packbuf_i_mooncake *const m = (packbuf_i_mooncake *)state;
  counters->copies += PACKBUF_I_LOAD(&m->copies);
  counters->bytes_moved += PACKBUF_I_LOAD(&m->moved);
  counters->waits += PACKBUF_I_LOAD(&m->waits);
  counters->registrations += 1; /* the handle counts the pool's */
  counters->registered += PACKBUF_I_MOONCAKE_SCRATCH;
}

static const packbuf_driver packbuf_i_mooncake_driver = {sizeof(packbuf_driver),
                                                         "mooncake",
                                                         packbuf_i_mooncake_open,
                                                         packbuf_i_mooncake_close,
                                                         packbuf_i_mooncake_describe,
                                                         NULL,
                                                         NULL,
                                                         NULL,
                                                         NULL,
                                                         packbuf_i_mooncake_run_call,
                                                         packbuf_i_mooncake_let_go,
                                                         NULL,
                                                         packbuf_i_mooncake_collect,
                                                         packbuf_i_mooncake_count,
                                                         NULL,
                                                         NULL,
                                                         0,
                                                         NULL};
