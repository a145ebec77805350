/* transport/put.c: whole batches into a store: each is measured, packed straight into memory of the store, described by
 * a ref and put.
 * May use: the public calls of stores and of the core, system (errors), handle (what a handle keeps).
 * Must not know: which store it is, how a batch is packed. */

/* ---- what is asked of a handle ---- */

/* Where arenas take their memory: the store's allocator. */
static const packbuf_allocator *packbuf_i_store_allocator(const packbuf_store *store) {
  return store->allocator.resize ? &store->allocator : NULL;
}

/* The URI for refs; none when the store cannot be asked, which the operation itself will tell. */
static void packbuf_i_store_uri(packbuf_store *store, uint64_t deadline, char *uri) {
  packbuf_store_info info;
  const packbuf_status status = packbuf_store_describe(store, &info, deadline, NULL);
  if (status == PACKBUF_OK) memcpy(uri, info.uri, sizeof info.uri);
  else uri[0] = 0;
}

/* ---- the first of many failures ---- */

/* Of items that fail one by one, in any order: the one that comes first among them is the call's. */
typedef struct packbuf_i_first {
  packbuf_error *error;
  uint64_t index;
  packbuf_status status;
} packbuf_i_first;

static void packbuf_i_first_start(packbuf_i_first *first, packbuf_error *error) {
  first->error = error;
  first->index = PACKBUF_NOWHERE;
  first->status = PACKBUF_OK;
}

static void packbuf_i_first_note(packbuf_i_first *first, uint64_t index, packbuf_status status,
                                 const packbuf_error *why) {
  if (status == PACKBUF_OK || index >= first->index) return;
  first->index = index;
  first->status = status;
  if (first->error) *first->error = *why;
}

/* What is known of item `at`, which failed: `why` when it is the one that the call told of, else what its status says;
 * `index`: what the caller counts it as. */
static packbuf_status packbuf_i_item_why(const packbuf_item *items, uint64_t at, uint64_t index,
                                         const packbuf_error *why, packbuf_error *one) {
  const packbuf_status status = items[at].status;
  if (why->code == status && why->row == at) {
    *one = *why;
    one->row = index;
    return status;
  }
  return packbuf_i_item_fail(one, status, packbuf_i_item_text(status, PACKBUF_PUT, items[at].key), items[at].key, index,
                             PACKBUF_NOWHERE);
}

/* ---- one batch ---- */

/* A batch on its way into a store. */
typedef struct packbuf_i_parcel {
  const char *key;
  packbuf_batch *batch;
  uint64_t index; /* among those the caller gave */
  uint64_t room;  /* what was measured */
  packbuf_slice slice;
  packbuf_view view; /* in the slice */
  packbuf_ref ref;
} packbuf_i_parcel;

/* Keys of batches leave room for what append adds to them. */
static packbuf_status packbuf_i_check_batch_key(const char *key, uint64_t index, packbuf_error *error) {
  if (!key || !key[0] || strlen(key) > PACKBUF_MAX_BATCH_KEY || strchr(key, '#'))
    return packbuf_i_item_fail(error, PACKBUF_INVALID_ARGUMENT, packbuf_i_key_text, key, index, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* A ref may come from anywhere: its texts must end. */
static packbuf_status packbuf_i_check_ref(const packbuf_ref *ref, packbuf_error *error) {
  if (ref && memchr(ref->key, 0, sizeof ref->key) && memchr(ref->uri, 0, sizeof ref->uri)) return PACKBUF_OK;
  return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a ref is NULL, or its key or URI has no end");
}

/* A copy of text that fits. */
static void packbuf_i_copy_text(char *to, const char *from) { memcpy(to, from, strlen(from) + 1); }

static int packbuf_i_is_manifest(const packbuf_view *view) { return view->kind == 2; }

static uint8_t packbuf_i_kind_of(const packbuf_view *view) {
  return (uint8_t)(packbuf_i_is_manifest(view) ? PACKBUF_OBJECT_MANIFEST : PACKBUF_OBJECT_BATCH);
}

/* All of an open packed buffer that a ref says, but its generation. */
static packbuf_status packbuf_i_describe_view(const packbuf_view *view, int fingerprint, packbuf_ref *ref,
                                              packbuf_error *error) {
  ref->length = view->total_length;
  ref->head_length = view->head_length + view->index_length;
  ref->head_checksum = view->head_checksum;
  ref->kind = packbuf_i_kind_of(view);
  return fingerprint && !packbuf_i_is_manifest(view) ? packbuf_fingerprint(view, ref->fingerprint, error) : PACKBUF_OK;
}

/* The limits that protect from strangers are not for what was just packed. */
static packbuf_limits packbuf_i_no_limits(void) {
  packbuf_limits limits = packbuf_default_limits();
  limits.head_bytes = limits.rows = limits.decoded_bytes = UINT64_MAX;
  limits.nodes = limits.buffers = limits.metadata = UINT32_MAX;
  return limits;
}

/* Packs into the slice, and says in the ref what came of it. */
static packbuf_status packbuf_i_parcel_pack(packbuf_i_parcel *parcel, const char *uri,
                                            const packbuf_put_options *options, packbuf_error *error) {
  const packbuf_limits limits = packbuf_i_no_limits();
  uint64_t size = 0;
  packbuf_status status;
  if (options->write)
    status = options->write(options->write_context, parcel->batch, parcel->slice.data, parcel->room, &size, error);
  else status = packbuf_write(parcel->batch, parcel->slice.data, parcel->room, &size, error);
  if (status == PACKBUF_OK && size > parcel->room)
    status = packbuf_i_too_small(error, "written past the room", 0, size);
  if (status == PACKBUF_OK)
    status = packbuf_open(&parcel->view, parcel->slice.data, size, PACKBUF_OPEN_EXACT, &limits, error);
  if (status != PACKBUF_OK) return status;
  memset(&parcel->ref, 0, sizeof parcel->ref);
  packbuf_i_copy_text(parcel->ref.uri, uri);
  packbuf_i_copy_text(parcel->ref.key, parcel->key);
  return packbuf_i_describe_view(&parcel->view, !options->no_fingerprint, &parcel->ref, error);
}

/* The item that puts it. */
static void packbuf_i_parcel_item(packbuf_i_parcel *parcel, const packbuf_put_options *options, packbuf_item *item) {
  memset(item, 0, sizeof *item);
  item->key = parcel->key;
  item->from = parcel->slice.data;
  item->size = parcel->ref.length;
  item->slice = &parcel->slice;
  item->about = &parcel->ref;
  item->flags = options->flags;
  item->ttl_ms = options->ttl_ms;
  item->account = options->account;
}

/* Measures, takes room and packs: what comes before a put. After an error nothing is held. */
static packbuf_status packbuf_i_parcel_make(packbuf_i_parcel *parcel, packbuf_store *store,
                                            const packbuf_put_options *options, packbuf_error *error) {
  char uri[PACKBUF_MAX_URI + 1];
  packbuf_status status = packbuf_measure(parcel->batch, &parcel->room, error);
  if (status == PACKBUF_OK)
    status = packbuf_reserve(store, options->account, &parcel->room, 1, options->deadline, &parcel->slice, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_store_uri(store, options->deadline, uri);
  status = packbuf_i_parcel_pack(parcel, uri, options, error);
  if (status != PACKBUF_OK) packbuf_slice_release(&parcel->slice);
  return status;
}

/* Puts what was made; the ref then has its generation. Takes the slice in any case. */
static packbuf_status packbuf_i_parcel_put(packbuf_i_parcel *parcel, packbuf_store *store,
                                           const packbuf_put_options *options, packbuf_error *error) {
  packbuf_item item;
  packbuf_status status;
  packbuf_i_parcel_item(parcel, options, &item);
  status = packbuf_batch_put(store, &item, 1, options->deadline, error);
  if (status == PACKBUF_OK) parcel->ref.generation = item.stat.generation;
  else packbuf_slice_release(&parcel->slice);
  return status;
}

static const packbuf_put_options packbuf_i_put_plainly = {PACKBUF_FOREVER, 0, 0, 0, 0, 0, NULL, NULL};

PACKBUF_API packbuf_status packbuf_put(packbuf_store *store, const char *key, packbuf_batch *batch,
                                       const packbuf_put_options *options, packbuf_ref *ref, packbuf_error *error) {
  packbuf_i_parcel parcel;
  packbuf_status status;
  if (!store || !batch)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a store and a batch must be given");
  if (!options) options = &packbuf_i_put_plainly;
  status = packbuf_i_check_batch_key(key, 0, error);
  if (status != PACKBUF_OK) return status;
  memset(&parcel, 0, sizeof parcel);
  parcel.key = key;
  parcel.batch = batch;
  status = packbuf_i_parcel_make(&parcel, store, options, error);
  if (status == PACKBUF_OK) status = packbuf_i_parcel_put(&parcel, store, options, error);
  if (status == PACKBUF_OK && ref) *ref = parcel.ref;
  return status;
}

/* ---- many ---- */

#define PACKBUF_I_PARCELS 64u /* the most that are under way at a time: bounds what is kept of them */

/* A put of many batches, some at a time. */
typedef struct packbuf_i_sending {
  packbuf_store *store;
  const char *const *keys;
  packbuf_batch *const *batches;
  const packbuf_put_options *options;
  packbuf_ref *refs;
  packbuf_status *statuses;
  packbuf_i_first first;
  packbuf_store_info info;
  uint64_t most; /* bytes at a time */
  packbuf_i_parcel *parcels;
  packbuf_item *items;
  packbuf_slice *slices;
  uint64_t *rooms;
} packbuf_i_sending;

/* What became of batch `index`. In an error of packing `row` is of the batch: which batch it was, `fragment` says. */
static void packbuf_i_sent(packbuf_i_sending *s, uint64_t index, packbuf_status status, const packbuf_error *why) {
  if (s->statuses) s->statuses[index] = status;
  packbuf_i_first_note(&s->first, index, status, why);
}

/* Measures batches from `from` on, as many as go together, into parcels; *next: the first that does not. Returns how
 * many parcels there are: those that cannot be measured fail here. */
static uint64_t packbuf_i_send_measure(packbuf_i_sending *s, uint64_t from, uint64_t count, uint64_t *next) {
  uint64_t taken = 0, bytes = 0;
  for (*next = from; *next < count && taken < PACKBUF_I_PARCELS; ++*next) {
    packbuf_i_parcel *parcel = &s->parcels[taken];
    packbuf_error why;
    packbuf_status status = packbuf_i_check_batch_key(s->keys[*next], *next, &why);
    uint64_t pages = 0;
    memset(parcel, 0, sizeof *parcel);
    if (status == PACKBUF_OK && !s->batches[*next])
      status = packbuf_i_item_fail(&why, PACKBUF_INVALID_ARGUMENT, "a batch is NULL", s->keys[*next], *next,
                                   PACKBUF_NOWHERE);
    else if (status == PACKBUF_OK) {
      status = packbuf_measure(s->batches[*next], &parcel->room, &why);
      why.fragment = *next;
    }
    if (status != PACKBUF_OK) {
      packbuf_i_sent(s, *next, status, &why);
      continue;
    }
    pages = (parcel->room | 4095) + (parcel->room <= UINT64_MAX - 4096); /* as slices are rounded */
    if (taken && (pages > s->most || bytes > s->most - pages)) break;
    bytes = pages > UINT64_MAX - bytes ? UINT64_MAX : bytes + pages;
    parcel->key = s->keys[*next];
    parcel->batch = s->batches[*next];
    parcel->index = *next;
    s->rooms[taken++] = parcel->room;
  }
  return taken;
}

/* Packs each into its slice; those that cannot be packed fail alone. Returns how many are left. */
static uint64_t packbuf_i_send_pack(packbuf_i_sending *s, uint64_t taken) {
  uint64_t kept = 0;
  for (uint64_t i = 0; i < taken; i++) {
    packbuf_i_parcel *parcel = &s->parcels[i];
    packbuf_error why;
    packbuf_status status;
    parcel->slice = s->slices[i];
    status = packbuf_i_parcel_pack(parcel, s->info.uri, s->options, &why);
    if (status == PACKBUF_OK) {
      if (kept != i) s->parcels[kept] = *parcel;
      kept++;
      continue;
    }
    packbuf_slice_release(&parcel->slice);
    why.fragment = parcel->index;
    packbuf_i_sent(s, parcel->index, status, &why);
  }
  return kept;
}

static void packbuf_i_send_put(packbuf_i_sending *s, uint64_t count) {
  packbuf_error why;
  memset(&why, 0, sizeof why);
  for (uint64_t i = 0; i < count; i++) packbuf_i_parcel_item(&s->parcels[i], s->options, &s->items[i]);
  if (count) (void)packbuf_batch_put(s->store, s->items, count, s->options->deadline, &why);
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_parcel *parcel = &s->parcels[i];
    packbuf_error one;
    if (s->items[i].status == PACKBUF_OK) {
      parcel->ref.generation = s->items[i].stat.generation;
      if (s->refs) s->refs[parcel->index] = parcel->ref;
      if (s->statuses) s->statuses[parcel->index] = PACKBUF_OK;
      continue;
    }
    packbuf_slice_release(&parcel->slice);
    packbuf_i_sent(s, parcel->index, packbuf_i_item_why(s->items, i, parcel->index, &why, &one), &one);
  }
}

/* Sends batches from `from` on, as many as go together; returns the first that is left. */
static uint64_t packbuf_i_send_some(packbuf_i_sending *s, uint64_t from, uint64_t count) {
  for (;;) {
    uint64_t next = from;
    const uint64_t taken = packbuf_i_send_measure(s, from, count, &next);
    packbuf_error why;
    packbuf_status status;
    if (!taken) return next;
    status = packbuf_reserve(s->store, s->options->account, s->rooms, taken, s->options->deadline, s->slices, &why);
    if (status == PACKBUF_CAPACITY && taken > 1) { /* never together: half of them */
      uint64_t bytes = 0;
      for (uint64_t i = 0; i < taken; i++) bytes += s->rooms[i] / 2;
      s->most = bytes < s->most ? bytes : s->most / 2;
      continue;
    }
    if (status == PACKBUF_OK) packbuf_i_send_put(s, packbuf_i_send_pack(s, taken));
    else
      for (uint64_t i = 0; i < taken; i++) {
        const uint64_t index = s->parcels[i].index;
        packbuf_i_item_fail(&why, status, why.message, s->parcels[i].key, index, PACKBUF_NOWHERE);
        packbuf_i_sent(s, index, status, &why);
      }
    return next;
  }
}

static packbuf_status packbuf_i_send_room(packbuf_i_sending *s, uint64_t count, packbuf_arena *arena,
                                          packbuf_error *error) {
  const uint64_t most = count < PACKBUF_I_PARCELS ? count : PACKBUF_I_PARCELS;
  s->parcels = (packbuf_i_parcel *)packbuf_i_array(arena, most, sizeof *s->parcels);
  s->items = (packbuf_item *)packbuf_i_array(arena, most, sizeof *s->items);
  s->slices = (packbuf_slice *)packbuf_i_array(arena, most, sizeof *s->slices);
  s->rooms = (uint64_t *)packbuf_i_array(arena, most, sizeof *s->rooms);
  return s->parcels && s->items && s->slices && s->rooms ? PACKBUF_OK : packbuf_i_no_memory(error);
}

PACKBUF_API packbuf_status packbuf_put_many(packbuf_store *store, const char *const *keys,
                                            packbuf_batch *const *batches, uint64_t count,
                                            const packbuf_put_options *options, packbuf_ref *refs,
                                            packbuf_status *statuses, packbuf_error *error) {
  packbuf_i_sending s;
  packbuf_arena arena;
  packbuf_status status;
  if (!store || (count && (!keys || !batches)))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a store, keys and batches must be given");
  memset(&s, 0, sizeof s);
  s.store = store;
  s.keys = keys;
  s.batches = batches;
  s.options = options ? options : &packbuf_i_put_plainly;
  s.refs = refs;
  s.statuses = statuses;
  packbuf_i_first_start(&s.first, error);
  if (refs && count) memset(refs, 0, (size_t)count * sizeof *refs);
  packbuf_arena_init(&arena, packbuf_i_store_allocator(store));
  /* half of what the store holds; of one that does not say, half of what a pool holds by default */
  if (packbuf_store_describe(store, &s.info, s.options->deadline, NULL) != PACKBUF_OK)
    s.info.uri[0] = 0, s.info.size = 0;
  s.most = s.info.size == 0 || s.info.size == UINT64_MAX ? (uint64_t)128 << 20 : s.info.size / 2;
  status = packbuf_i_send_room(&s, count, &arena, error);
  if (status == PACKBUF_OK) {
    for (uint64_t at = 0; at < count;) at = packbuf_i_send_some(&s, at, count);
    status = s.first.status;
  } else {
    for (uint64_t i = 0; statuses && i < count; i++) statuses[i] = status;
  }
  packbuf_arena_free(&arena);
  return status;
}
