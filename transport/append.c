/* transport/append.c: rows and fields added to stored batches, without an old byte written: the new batch under a name
 * of its own, then a manifest that lists it behind what was there; and the removal of all that belongs together.
 * May use: the public calls of stores and of the core, concat (agrees), put, get, text (lines), system (random numbers,
 * errors).
 * Must not know: which store it is, what fragments hold. */

/* ---- names ---- */

/* How much of a key is the batch's own: up to the '#' of an append. */
static size_t packbuf_i_stem(const char *key) {
  const char *mark = strchr(key, '#');
  return mark ? (size_t)(mark - key) : strlen(key);
}

/* STEM#fNUMBER, STEM#mNUMBER: `number` was drawn at random, so that two who append at once do not meet. */
static void packbuf_i_new_name(char *to, const char *key, char kind, uint64_t number) {
  const size_t stem = packbuf_i_stem(key);
  packbuf_i_line line = packbuf_i_line_in(to + stem, PACKBUF_MAX_KEY + 1 - stem);
  memcpy(to, key, stem);
  packbuf_i_line_character(&line, '#');
  packbuf_i_line_character(&line, kind);
  packbuf_i_line_hex(&line, number, 16);
  (void)packbuf_i_line_close(&line);
}

#define PACKBUF_I_NAME_ROOM (PACKBUF_MAX_KEY + 1 + 17 + 1) /* of "KEY@generation" and its NUL */

/* What a manifest calls an object: a name that no later object of the key can answer to. */
static void packbuf_i_full_name(char *to, const char *key, uint64_t generation) {
  packbuf_i_line line = packbuf_i_line_in(to, PACKBUF_I_NAME_ROOM);
  packbuf_i_line_text(&line, key);
  packbuf_i_line_character(&line, '@');
  packbuf_i_line_hex(&line, generation, 16);
  (void)packbuf_i_line_close(&line);
}

/* ---- appending ---- */

static const char packbuf_i_lineage_key[] = "packbuf.lineage";

/* The manifests before this one, oldest first, with blanks between them; size 0: there are none. */
static packbuf_status packbuf_i_lineage(const packbuf_view *manifest, packbuf_text *lineage, packbuf_error *error) {
  const size_t size = sizeof packbuf_i_lineage_key - 1;
  lineage->data = "";
  lineage->size = 0;
  for (uint32_t i = 0; i < manifest->metadata_count; i++) {
    packbuf_metadata pair;
    packbuf_status status;
    memset(&pair, 0, sizeof pair);
    status = packbuf_get_metadata(manifest, i, &pair, error);
    if (status != PACKBUF_OK) return status;
    if (pair.node != PACKBUF_NO_NODE || pair.key.size != size ||
        memcmp(pair.key.data, packbuf_i_lineage_key, size) != 0)
      continue;
    *lineage = pair.text;
    return PACKBUF_OK;
  }
  return PACKBUF_OK;
}

/* An append under way. */
typedef struct packbuf_i_appending {
  packbuf_store *store;
  const packbuf_put_options *options;
  packbuf_appends appends;
  packbuf_ref before;           /* what is appended to, completed */
  packbuf_object heads;         /* of that, or all that it lists */
  packbuf_lease lease;          /* of the manifest that it is */
  packbuf_view manifest;        /* kind 0: it is none */
  const packbuf_fragment *list; /* what it lists; NULL: it is none */
  uint64_t count, rows;
  packbuf_arena arena;
  packbuf_i_parcel fragment;
  uint64_t number;
  char fragment_key[PACKBUF_MAX_KEY + 1], manifest_key[PACKBUF_MAX_KEY + 1];
  char names[2][PACKBUF_I_NAME_ROOM];
} packbuf_i_appending;

/* The heads of what is appended to, or of all that it lists; the batch values too where new ones have to agree. */
static packbuf_status packbuf_i_append_heads(packbuf_i_appending *a, packbuf_error *error) {
  packbuf_get_options options;
  packbuf_wanted wanted;
  packbuf_status status;
  memset(&options, 0, sizeof options);
  memset(&wanted, 0, sizeof wanted);
  options.deadline = a->options->deadline;
  options.account = a->options->account;
  options.join_flags = PACKBUF_WIDEN | PACKBUF_FIRST_VALUE; /* whether it fits is seen with what is appended */
  wanted.rows = packbuf_rows_range(0, 0, 1);
  wanted.values = a->fragment.view.value_count && !(a->options->join_flags & PACKBUF_FIRST_VALUE);
  status = packbuf_get_select(a->store, &a->before, &wanted, &options, &a->heads, error);
  if (status != PACKBUF_OK) return status;
  a->before = a->heads.ref;
  a->rows = a->heads.join ? a->heads.join->rows : a->heads.views[0].rows;
  return PACKBUF_OK;
}

/* What is appended to, when it is a manifest: all of it. */
static packbuf_status packbuf_i_append_to_manifest(packbuf_i_appending *a, packbuf_error *error) {
  packbuf_item item;
  packbuf_status status;
  memset(&item, 0, sizeof item);
  item.key = a->before.key;
  item.generation = a->before.generation;
  item.account = a->options->account;
  status = packbuf_batch_get(a->store, &item, 1, a->options->deadline, error);
  if (status != PACKBUF_OK) return status;
  a->lease = item.lease;
  status = packbuf_open(&a->manifest, item.lease.data, item.lease.size, PACKBUF_OPEN_EXACT, NULL, error);
  if (status == PACKBUF_OK && a->before.generation &&
      (a->manifest.head_checksum != a->before.head_checksum || a->manifest.total_length != a->before.length))
    status = packbuf_i_item_fail(error, PACKBUF_FRAGMENT_MISMATCH, "the manifest is not the one of its ref",
                                 a->before.key, 0, PACKBUF_NOWHERE);
  if (status == PACKBUF_OK)
    status = packbuf_manifest_read(&a->manifest, &a->arena, &a->list, &a->count, &a->rows, error);
  a->before.generation = item.stat.generation;
  return status;
}

/* Whether rows fit without a look at others: the whole has one schema, which is theirs, and nothing else can differ; or
 * those who read join all there is. */
static int packbuf_i_append_alike(const packbuf_i_appending *a) {
  static const uint8_t unknown[PACKBUF_FINGERPRINT] = {0};
  const unsigned all = PACKBUF_WIDEN | PACKBUF_FIRST_VALUE;
  const packbuf_i_parcel *fragment = &a->fragment;
  if (a->appends != PACKBUF_APPENDS_ROWS) return 0;
  if ((a->options->join_flags & all) == all) return 1;
  return fragment->view.value_count == 0 && fragment->view.metadata_count == 0 &&
         memcmp(fragment->ref.fingerprint, unknown, sizeof unknown) != 0 &&
         memcmp(fragment->ref.fingerprint, a->before.fingerprint, sizeof unknown) == 0;
}

/* Looks at what is appended to: of a manifest at what it lists, unless that cannot matter. */
static packbuf_status packbuf_i_append_look(packbuf_i_appending *a, packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  if (a->before.kind != PACKBUF_OBJECT_MANIFEST || !packbuf_i_append_alike(a)) {
    status = packbuf_i_append_heads(a, error);
    if (status != PACKBUF_OK) return status;
  }
  if (a->before.kind != PACKBUF_OBJECT_MANIFEST) return PACKBUF_OK;
  status = packbuf_i_append_to_manifest(a, error);
  if (status == PACKBUF_OK && a->heads.inner && a->heads.view_count != a->count)
    status = packbuf_i_item_fail(error, PACKBUF_FRAGMENT_MISMATCH, "the manifest has changed while it was read",
                                 a->before.key, 0, PACKBUF_NOWHERE);
  return status;
}

/* What is appended fits when those who get the whole can join it. */
static packbuf_status packbuf_i_append_check(packbuf_i_appending *a, packbuf_error *error) {
  const uint64_t old = a->heads.view_count, first = a->appends == PACKBUF_APPENDS_ROWS ? a->rows : 0;
  packbuf_fragment *list;
  packbuf_view *views;
  packbuf_join join;
  packbuf_status status = PACKBUF_OK;
  if (packbuf_i_append_alike(a)) return PACKBUF_OK;
  if (a->appends == PACKBUF_APPENDS_FIELDS && a->fragment.view.rows != a->rows)
    return packbuf_i_call_fail(error, PACKBUF_ROW_COUNT, "fields that are appended have a cell for each row");
  list = (packbuf_fragment *)packbuf_i_array(&a->arena, old + 1, sizeof *list);
  views = (packbuf_view *)packbuf_i_array(&a->arena, old + 1, sizeof *views);
  if (!list || !views) return packbuf_i_no_memory(error);
  if (old) memcpy(views, a->heads.views, (size_t)old * sizeof *views);
  if (a->list && old) memcpy(list, a->list, (size_t)old * sizeof *list);
  if (!a->list) status = packbuf_fragment_of(&views[0], a->before.key, PACKBUF_APPENDS_ROWS, 0, &list[0], error);
  views[old] = a->fragment.view;
  if (status == PACKBUF_OK)
    status = packbuf_fragment_of(&views[old], a->fragment_key, a->appends, first, &list[old], error);
  if (status == PACKBUF_OK)
    status = packbuf_join_init(&join, list, views, old + 1, a->options->join_flags, &a->arena, error);
  return status == PACKBUF_OK ? packbuf_i_join_agrees(&join, &a->arena, error) : status;
}

/* The manifest as a batch. */
static packbuf_status packbuf_i_append_list(packbuf_i_appending *a, packbuf_batch *batch, packbuf_error *error) {
  packbuf_fragment added[2];
  const int first = a->manifest.kind == 0;
  packbuf_text lineage;
  packbuf_status status = PACKBUF_OK;
  char *text;
  packbuf_i_full_name(a->names[1], a->fragment_key, a->fragment.ref.generation);
  if (first) {
    packbuf_i_full_name(a->names[0], a->before.key, a->before.generation);
    status = packbuf_fragment_of(&a->heads.views[0], a->names[0], PACKBUF_APPENDS_ROWS, 0, &added[0], error);
  }
  if (status == PACKBUF_OK)
    status = packbuf_fragment_of(&a->fragment.view, a->names[1], a->appends,
                                 a->appends == PACKBUF_APPENDS_ROWS ? a->rows : 0, &added[1], error);
  if (status == PACKBUF_OK)
    status = packbuf_manifest_init(batch, first ? NULL : &a->manifest, first ? added : added + 1, first ? 2 : 1,
                                   &a->arena, NULL, error);
  if (status != PACKBUF_OK || first) return status;
  status = packbuf_i_lineage(&a->manifest, &lineage, error);
  if (status != PACKBUF_OK) return status;
  text = (char *)packbuf_arena_alloc(&a->arena, lineage.size + 1 + PACKBUF_I_NAME_ROOM, 1);
  if (!text) return packbuf_i_no_memory(error);
  memcpy(text, lineage.data, lineage.size);
  if (lineage.size) text[lineage.size] = ' ';
  packbuf_i_full_name(text + lineage.size + (lineage.size != 0), a->before.key, a->before.generation);
  return packbuf_add_metadata(batch, NULL, packbuf_i_lineage_key, text, error);
}

/* Puts the manifest. */
static packbuf_status packbuf_i_append_manifest(packbuf_i_appending *a, packbuf_ref *appended, packbuf_error *error) {
  packbuf_put_options options = *a->options;
  packbuf_i_parcel parcel;
  packbuf_batch batch;
  packbuf_status status = packbuf_i_append_list(a, &batch, error);
  if (status != PACKBUF_OK) return status;
  options.write = NULL;
  memset(&parcel, 0, sizeof parcel);
  parcel.key = a->manifest_key;
  parcel.batch = &batch;
  status = packbuf_i_parcel_make(&parcel, a->store, &options, error);
  if (status != PACKBUF_OK) return status;
  /* the schema of the whole is that of its rows; of fields that are added it is not known before they are joined */
  if (a->appends == PACKBUF_APPENDS_ROWS &&
      memcmp(a->before.fingerprint, a->fragment.ref.fingerprint, PACKBUF_FINGERPRINT) == 0)
    memcpy(parcel.ref.fingerprint, a->before.fingerprint, PACKBUF_FINGERPRINT);
  status = packbuf_i_parcel_put(&parcel, a->store, &options, error);
  if (status == PACKBUF_OK && appended) *appended = parcel.ref;
  return status;
}

/* Takes back a fragment that no manifest came to list; for that there is a moment, whatever the deadline. Where it is
 * not known whether one did, it stays. */
static void packbuf_i_append_undo(packbuf_i_appending *a, packbuf_status because) {
  const uint64_t moment = packbuf_deadline_in(100);
  packbuf_item item;
  if (because == PACKBUF_DISCONNECTED) return;
  memset(&item, 0, sizeof item);
  item.key = a->fragment_key;
  item.generation = a->fragment.ref.generation;
  (void)packbuf_batch_remove(a->store, &item, 1, a->options->deadline > moment ? a->options->deadline : moment, NULL);
}

/* Packs what is appended, and sees whether it fits; after an error nothing is held. */
static packbuf_status packbuf_i_append_pack(packbuf_i_appending *a, packbuf_error *error) {
  packbuf_status status;
  if (packbuf_i_stem(a->before.key) > PACKBUF_MAX_BATCH_KEY || packbuf_i_stem(a->before.key) == 0)
    return packbuf_i_item_fail(error, PACKBUF_INVALID_ARGUMENT, packbuf_i_key_text, a->before.key, 0,
                               PACKBUF_NOWHERE);
  packbuf_i_new_name(a->fragment_key, a->before.key, 'f', a->number);
  packbuf_i_new_name(a->manifest_key, a->before.key, 'm', a->number);
  a->fragment.key = a->fragment_key;
  status = packbuf_i_parcel_make(&a->fragment, a->store, a->options, error);
  if (status != PACKBUF_OK) return status;
  status = packbuf_i_append_look(a, error);
  if (status == PACKBUF_OK) status = packbuf_i_append_check(a, error);
  if (status != PACKBUF_OK) packbuf_slice_release(&a->fragment.slice);
  return status;
}

PACKBUF_API packbuf_status packbuf_append(packbuf_store *store, const packbuf_ref *ref, packbuf_batch *batch,
                                          packbuf_appends appends, const packbuf_put_options *options,
                                          packbuf_ref *appended, packbuf_error *error) {
  packbuf_i_appending a;
  packbuf_status status;
  if (!store || !batch || (unsigned)appends > PACKBUF_APPENDS_FIELDS)
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a store and a batch must be given");
  status = packbuf_i_check_ref(ref, error);
  if (status != PACKBUF_OK) return status;
  memset(&a, 0, sizeof a);
  a.store = store;
  a.options = options ? options : &packbuf_i_put_plainly;
  a.appends = appends;
  a.before = *ref;
  a.fragment.batch = batch;
  if (!packbuf_i_random(&a.number, sizeof a.number))
    return packbuf_i_call_fail(error, PACKBUF_SYSTEM, "no random numbers are to be had");
  packbuf_arena_init(&a.arena, packbuf_i_store_allocator(store));
  status = packbuf_i_append_pack(&a, error);
  if (status == PACKBUF_OK) status = packbuf_i_parcel_put(&a.fragment, store, a.options, error);
  if (status == PACKBUF_OK) {
    status = packbuf_i_append_manifest(&a, appended, error);
    if (status != PACKBUF_OK) packbuf_i_append_undo(&a, status);
  }
  packbuf_object_release(&a.heads);
  packbuf_lease_release(&a.lease);
  packbuf_arena_free(&a.arena);
  return status;
}

/* ---- removing ---- */

/* A removal under way. */
typedef struct packbuf_i_removing {
  packbuf_store *store;
  const char *key; /* of the manifest */
  uint32_t flags;
  uint64_t deadline;
  packbuf_arena arena;
  packbuf_item *items;
  uint64_t count;
} packbuf_i_removing;

/* One more object to remove, by the name that a manifest has for it. What is not of its own batch (a stranger can list
 * any key) is not touched. */
static packbuf_status packbuf_i_remove_name(packbuf_i_removing *r, packbuf_text name, uint64_t fragment,
                                            packbuf_error *error) {
  char *key = (char *)packbuf_arena_alloc(&r->arena, PACKBUF_MAX_KEY + 1, 1);
  packbuf_item *item = &r->items[r->count];
  packbuf_status status;
  if (!key) return packbuf_i_no_memory(error);
  memset(item, 0, sizeof *item);
  status = packbuf_i_split_name(name, fragment, key, &item->generation, error);
  if (status != PACKBUF_OK) return status;
  if (packbuf_i_stem(key) != packbuf_i_stem(r->key) || memcmp(key, r->key, packbuf_i_stem(key)) != 0) return PACKBUF_OK;
  item->key = key;
  item->flags = r->flags;
  r->count++;
  return PACKBUF_OK;
}

/* What a manifest lists, and the manifests before it. */
static packbuf_status packbuf_i_remove_names(packbuf_i_removing *r, const packbuf_view *manifest,
                                             packbuf_error *error) {
  const packbuf_fragment *list = NULL;
  packbuf_text lineage, name;
  uint64_t count = 0, before = 1;
  packbuf_status status = packbuf_manifest_read(manifest, &r->arena, &list, &count, NULL, error);
  if (status == PACKBUF_OK) status = packbuf_i_lineage(manifest, &lineage, error);
  if (status != PACKBUF_OK) return status;
  for (size_t i = 0; i < lineage.size; i++) before += lineage.data[i] == ' ';
  if (count + before > manifest->limits.decoded_bytes / PACKBUF_I_FRAGMENT_ROOM)
    return packbuf_i_call_fail(error, PACKBUF_LIMIT, "more fragments than limits.decoded_bytes allows");
  r->items = (packbuf_item *)packbuf_i_array(&r->arena, count + before, sizeof *r->items);
  if (!r->items) return packbuf_i_no_memory(error);
  for (uint64_t i = 0; status == PACKBUF_OK && i < count; i++) status = packbuf_i_remove_name(r, list[i].key, i, error);
  while (status == PACKBUF_OK && lineage.size) {
    const char *end = (const char *)memchr(lineage.data, ' ', lineage.size);
    name.data = lineage.data;
    name.size = end ? (size_t)(end - lineage.data) : lineage.size;
    status = packbuf_i_remove_name(r, name, PACKBUF_NOWHERE, error);
    if (status == PACKBUF_OK && end) name.size++;
    lineage.data += name.size;
    lineage.size -= name.size;
  }
  return status;
}

static int packbuf_i_is_gone(packbuf_status status) {
  return status == PACKBUF_OK || status == PACKBUF_NOT_FOUND || status == PACKBUF_STALE;
}

/* Removes what a manifest lists, all but itself. Its own lease ends before: a removal would wait for it. LEASED when
 * all is removed but leases keep the memory of some. */
static packbuf_status packbuf_i_remove_listed(packbuf_i_removing *r, const char *key, uint64_t generation,
                                              packbuf_error *error) {
  packbuf_item item;
  packbuf_view view;
  packbuf_status status, worst = PACKBUF_OK;
  packbuf_error why;
  memset(&item, 0, sizeof item);
  r->key = item.key = key;
  item.generation = generation;
  status = packbuf_batch_get(r->store, &item, 1, r->deadline, error);
  if (status != PACKBUF_OK) return packbuf_i_is_gone(status) ? PACKBUF_OK : status;
  status = packbuf_open(&view, item.lease.data, item.lease.size, PACKBUF_OPEN_EXACT, NULL, error);
  if (status == PACKBUF_OK && packbuf_i_is_manifest(&view)) status = packbuf_i_remove_names(r, &view, error);
  packbuf_lease_release(&item.lease);
  if (status != PACKBUF_OK || r->count == 0) return status;
  memset(&why, 0, sizeof why);
  (void)packbuf_batch_remove(r->store, r->items, r->count, r->deadline, &why);
  for (uint64_t i = 0; i < r->count; i++) {
    packbuf_error one;
    status = r->items[i].status;
    if (packbuf_i_is_gone(status) || (worst != PACKBUF_OK && (worst != PACKBUF_LEASED || status == PACKBUF_LEASED)))
      continue;
    worst = packbuf_i_item_why(r->items, i, i, &why, &one);
    if (error) *error = one;
  }
  return worst;
}

/* packbuf_remove with flags of the removal. */
static packbuf_status packbuf_i_remove(packbuf_store *store, const packbuf_ref *ref, uint32_t flags, uint64_t deadline,
                                       packbuf_error *error) {
  packbuf_i_removing r;
  packbuf_item own;
  uint64_t generation = ref->generation;
  uint8_t kind = ref->kind;
  packbuf_error why;
  packbuf_status status = PACKBUF_OK, listed = PACKBUF_OK;
  memset(&r, 0, sizeof r);
  memset(&own, 0, sizeof own);
  r.store = store;
  r.flags = own.flags = flags;
  r.deadline = deadline;
  own.key = ref->key;
  own.generation = ref->generation;
  if (kind == PACKBUF_OBJECT_BYTES) { /* a ref that does not say */
    status = packbuf_batch_stat(store, &own, 1, deadline, error);
    if (status != PACKBUF_OK) return packbuf_i_is_gone(status) ? PACKBUF_OK : status;
    kind = own.stat.kind;
    generation = own.stat.generation;
  }
  if (kind == PACKBUF_OBJECT_MANIFEST) {
    packbuf_arena_init(&r.arena, packbuf_i_store_allocator(store));
    listed = packbuf_i_remove_listed(&r, ref->key, generation, error);
    packbuf_arena_free(&r.arena);
    if (listed != PACKBUF_OK && listed != PACKBUF_LEASED) return listed;
  }
  status = packbuf_batch_remove(store, &own, 1, deadline, &why);
  if (packbuf_i_is_gone(status)) return listed;
  if (error) *error = why;
  return status;
}

PACKBUF_API packbuf_status packbuf_remove(packbuf_store *store, const packbuf_ref *ref, uint64_t deadline,
                                          packbuf_error *error) {
  packbuf_status status;
  if (!store) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a store must be given");
  status = packbuf_i_check_ref(ref, error);
  return status == PACKBUF_OK ? packbuf_i_remove(store, ref, 0, deadline, error) : status;
}
