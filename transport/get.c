/* transport/get.c: whole batches out of a store: leased, opened, checked against their refs; or of some fields and rows
 * the head and index first, then the ranges they lie in. A manifest's fragments come the same way, and are joined.
 * May use: the public calls of stores and of the core, choose (rows) and sort of the core, system (errors), handle
 * (what it keeps), put (the first of many failures, kinds). Must not know: which store it is, how a batch was put. */

/* ---- objects ---- */

/* What was leased for one packed buffer. */
typedef struct packbuf_i_held {
  struct packbuf_i_held *next;
  packbuf_lease whole;  /* or head and index alone */
  packbuf_lease ranges; /* and then these */
} packbuf_i_held;

/* What an object holds; it lies in its own arena. */
typedef struct packbuf_i_object {
  packbuf_arena arena;
  packbuf_i_held *held;
} packbuf_i_object;

PACKBUF_API void packbuf_object_release(packbuf_object *object) {
  packbuf_i_object *inner = object->inner;
  packbuf_arena arena;
  memset(object, 0, sizeof *object);
  if (!inner) return;
  for (packbuf_i_held *held = inner->held; held; held = held->next) {
    packbuf_lease_release(&held->whole);
    packbuf_lease_release(&held->ranges);
  }
  arena = inner->arena; /* which lies in what is given back */
  packbuf_arena_free(&arena);
}

static packbuf_status packbuf_i_object_start(const packbuf_store *store, packbuf_object *object, packbuf_error *error) {
  packbuf_arena arena;
  packbuf_i_object *inner;
  packbuf_arena_init(&arena, packbuf_i_store_allocator(store));
  inner = (packbuf_i_object *)packbuf_arena_alloc(&arena, sizeof *inner, 16);
  if (!inner) return packbuf_i_no_memory(error);
  inner->arena = arena;
  inner->held = NULL;
  object->inner = inner;
  return PACKBUF_OK;
}

/* ---- what is under way ---- */

/* One packed buffer on its way: an object's own, or a fragment of it. */
typedef struct packbuf_i_coming {
  packbuf_object *object;
  uint64_t index;                 /* of the object */
  uint64_t fragment;              /* PACKBUF_NOWHERE: the object's own */
  const packbuf_fragment *listed; /* of a fragment */
  const char *key;
  uint64_t generation;          /* 0: the newest, until it is known */
  uint64_t length, head_length; /* 0: not known */
  uint8_t exact;                /* 1: what arrives must have this length */
  uint8_t partial;              /* 1: head and index alone, then ranges */
  packbuf_view *view;
  packbuf_i_held *held;
  packbuf_range head;
  packbuf_range *ranges;
  uint64_t range_count;
} packbuf_i_coming;

/* A call under way. */
typedef struct packbuf_i_getting {
  packbuf_store *store;
  const packbuf_wanted *wanted; /* NULL: all */
  const packbuf_get_options *options;
  packbuf_object *objects;
  uint64_t count;
  char uri[PACKBUF_MAX_URI + 1]; /* of the store, for refs that have none */
  int in_place;                  /* objects are read where they are */
  int partial; /* heads first, then ranges: what is wanted is not all, and the store moves ranges alone */
  packbuf_arena scratch;
  packbuf_i_first first;
} packbuf_i_getting;

static packbuf_arena *packbuf_i_part_arena(const packbuf_i_coming *part) { return &part->object->inner->arena; }

/* Ends an object with what went wrong with one of its parts. `why` is completed. */
static void packbuf_i_part_failed(packbuf_i_getting *g, const packbuf_i_coming *part, packbuf_status status,
                                  packbuf_error *why) {
  if (part->object->status != PACKBUF_OK) return;
  part->object->status = status;
  if (g->count > 1) why->row = part->index;
  if (part->fragment != PACKBUF_NOWHERE) why->fragment = part->fragment;
  if (status == PACKBUF_HEAD_CHECKSUM || status == PACKBUF_INDEX_CHECKSUM || status == PACKBUF_DATA_CHECKSUM)
    PACKBUF_I_COUNTER(g->store, checksum_failures, 1);
  packbuf_i_first_note(&g->first, part->index, status, why);
}

static packbuf_status packbuf_i_part_unlike(const packbuf_i_coming *part, packbuf_status code, const char *message,
                                            packbuf_error *error) {
  return packbuf_i_item_fail(error, code, message, part->key, part->index, PACKBUF_NOWHERE);
}

/* An array of the call. */
static void *packbuf_i_get_room(packbuf_i_getting *g, uint64_t count, size_t size) {
  void *memory = packbuf_i_array(&g->scratch, count, size);
  if (memory) memset(memory, 0, (size_t)count * size);
  return memory;
}

/* All objects that have not failed yet fail. */
static packbuf_status packbuf_i_get_no_memory(packbuf_i_getting *g) {
  packbuf_error why;
  packbuf_i_no_memory(&why);
  for (uint64_t i = 0; i < g->count; i++) {
    if (g->objects[i].status != PACKBUF_OK) continue;
    g->objects[i].status = PACKBUF_OUT_OF_MEMORY;
    packbuf_i_first_note(&g->first, i, PACKBUF_OUT_OF_MEMORY, &why);
  }
  return PACKBUF_OUT_OF_MEMORY;
}

/* ---- from the store ---- */

/* Parts that are to be partial but do not say how long head and index are: the store knows. What is no packed buffer
 * there, and manifests, come whole. */
static packbuf_status packbuf_i_parts_look(packbuf_i_getting *g, packbuf_i_coming *parts, uint64_t count) {
  packbuf_item *items;
  packbuf_i_coming **asked;
  packbuf_error why, one;
  uint64_t n = 0;
  for (uint64_t i = 0; i < count; i++) n += parts[i].partial && parts[i].head_length == 0 && !parts[i].object->status;
  if (n == 0) return PACKBUF_OK;
  items = (packbuf_item *)packbuf_i_get_room(g, n, sizeof *items);
  asked = (packbuf_i_coming **)packbuf_i_get_room(g, n, sizeof *asked);
  if (!items || !asked) return packbuf_i_get_no_memory(g);
  n = 0;
  for (uint64_t i = 0; i < count; i++) {
    if (!parts[i].partial || parts[i].head_length != 0 || parts[i].object->status) continue;
    asked[n] = &parts[i];
    items[n].key = parts[i].key;
    items[n++].generation = parts[i].generation;
  }
  memset(&why, 0, sizeof why);
  (void)packbuf_batch_stat(g->store, items, n, g->options->deadline, &why);
  for (uint64_t i = 0; i < n; i++) {
    packbuf_i_coming *part = asked[i];
    if (items[i].status != PACKBUF_OK) {
      packbuf_i_part_failed(g, part, packbuf_i_item_why(items, i, part->index, &why, &one), &one);
      continue;
    }
    part->generation = items[i].stat.generation;
    part->head_length = items[i].stat.head_length;
    if (!part->exact) part->length = items[i].stat.length;
    part->partial = part->head_length != 0 && items[i].stat.kind != PACKBUF_OBJECT_MANIFEST;
  }
  return PACKBUF_OK;
}

/* Whether what arrived is as long as the ref, or the manifest, says. */
static packbuf_status packbuf_i_part_arrived(packbuf_i_coming *part, const packbuf_item *item, packbuf_error *error) {
  static const uint8_t unknown[PACKBUF_FINGERPRINT] = {0};
  packbuf_ref *ref = &part->object->ref;
  const uint64_t want = part->partial ? part->head_length : item->stat.length;
  if (part->exact && item->stat.length < part->length)
    return packbuf_i_part_unlike(part, PACKBUF_SHORT_READ, "the object is shorter than its ref says", error);
  if (part->exact && item->stat.length > part->length)
    return packbuf_i_part_unlike(part, PACKBUF_CAPACITY, "the object is longer than its ref says", error);
  if (item->lease.size != want || item->got != want)
    return packbuf_i_part_unlike(part, PACKBUF_SHORT_READ, "fewer bytes came than the object has", error);
  if (part->fragment != PACKBUF_NOWHERE || memcmp(item->stat.fingerprint, unknown, sizeof unknown) == 0)
    return PACKBUF_OK;
  if (memcmp(ref->fingerprint, unknown, sizeof unknown) != 0 &&
      memcmp(ref->fingerprint, item->stat.fingerprint, sizeof unknown) != 0)
    return packbuf_i_part_unlike(part, PACKBUF_SCHEMA_MISMATCH, "the object has another schema than its ref says",
                                 error);
  memcpy(ref->fingerprint, item->stat.fingerprint, sizeof unknown);
  return PACKBUF_OK;
}

/* Opens what arrived, to the level that is asked for. */
static packbuf_status packbuf_i_part_open(packbuf_i_getting *g, const packbuf_i_coming *part, packbuf_error *error) {
  const packbuf_get_options *options = g->options;
  const unsigned flags = options->level ? 0 : (unsigned)PACKBUF_OPEN_TABLES;
  const packbuf_lease *lease = &part->held->whole;
  packbuf_level level = (packbuf_level)options->level;
  packbuf_status status;
  if (part->partial)
    status = packbuf_open_partial(part->view, lease->data, lease->size, NULL, 0, flags, options->limits, error);
  else
    status = packbuf_open(part->view, lease->data, lease->size, flags | (unsigned)PACKBUF_OPEN_EXACT, options->limits,
                          error);
  if (part->partial && level > PACKBUF_LEVEL_INDEX)
    level = PACKBUF_LEVEL_INDEX; /* the data are verified as they come */
  if (status == PACKBUF_OK && level) status = packbuf_verify(part->view, level, error);
  return status;
}

/* What the head cannot tell of an object that is no packed buffer at all: its bytes are there for those who want
 * them. */
static packbuf_status packbuf_i_part_foreign(const packbuf_i_coming *part, packbuf_status status,
                                             packbuf_error *error) {
  const uint64_t size = part->held->whole.size, most = sizeof packbuf_i_magic;
  if ((status != PACKBUF_TRUNCATED && status != PACKBUF_BAD_MAGIC) ||
      (size && memcmp(part->held->whole.data, packbuf_i_magic, (size_t)(size < most ? size : most)) == 0))
    return status;
  return packbuf_i_part_unlike(part, size ? PACKBUF_BAD_MAGIC : PACKBUF_TRUNCATED,
                               "the object is no packed buffer: packbuf_batch_get gets its bytes (Python: get_bytes)",
                               error);
}

/* Whether an open object is the one of its ref; completes the ref. */
static packbuf_status packbuf_i_part_check(packbuf_i_coming *part, packbuf_error *error) {
  packbuf_ref *ref = &part->object->ref;
  const packbuf_view *view = part->view;
  const uint8_t kind = packbuf_i_kind_of(view);
  if (part->fragment != PACKBUF_NOWHERE) return PACKBUF_OK; /* packbuf_join_init does that */
  if (part->exact) {
    if (view->head_checksum != ref->head_checksum)
      return packbuf_i_part_unlike(part, PACKBUF_FRAGMENT_MISMATCH, "the head has another checksum than the ref says",
                                   error);
    if (view->total_length != ref->length || view->head_length + view->index_length != part->head_length)
      return packbuf_i_part_unlike(part, PACKBUF_FRAGMENT_MISMATCH, "head or object is not as long as the ref says",
                                   error);
    if (ref->kind != PACKBUF_OBJECT_BYTES && ref->kind != kind)
      return packbuf_i_part_unlike(part, PACKBUF_FRAGMENT_MISMATCH, "a batch is not a manifest", error);
  }
  ref->length = view->total_length;
  ref->head_length = view->head_length + view->index_length;
  ref->head_checksum = view->head_checksum;
  ref->kind = kind;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_part_schema(const packbuf_i_getting *g, const packbuf_i_coming *part,
                                            packbuf_error *error) {
  if (!g->options->fingerprint || packbuf_i_is_manifest(part->view)) return PACKBUF_OK;
  return packbuf_expect_fingerprint(part->view, g->options->fingerprint, error);
}

static void packbuf_i_part_take(packbuf_i_getting *g, packbuf_i_coming *part, packbuf_item *item) {
  packbuf_error why;
  packbuf_status status;
  part->held->whole = item->lease;
  memset(&why, 0, sizeof why);
  status = packbuf_i_part_arrived(part, item, &why);
  if (status == PACKBUF_OK) {
    if (!g->in_place) part->object->moved += item->got;
    part->generation = item->stat.generation;
    if (part->fragment == PACKBUF_NOWHERE) part->object->ref.generation = part->generation;
    status = packbuf_i_part_foreign(part, packbuf_i_part_open(g, part, &why), &why);
  }
  if (status == PACKBUF_OK && part->head_length == 0)
    part->head_length = part->view->head_length + part->view->index_length;
  if (status == PACKBUF_OK) status = packbuf_i_part_check(part, &why);
  if (status == PACKBUF_OK) status = packbuf_i_part_schema(g, part, &why);
  if (status != PACKBUF_OK) packbuf_i_part_failed(g, part, status, &why);
}

/* One round: parts whole, or their heads, leased and opened. */
static packbuf_status packbuf_i_parts_fetch(packbuf_i_getting *g, packbuf_i_coming *parts, uint64_t count) {
  packbuf_item *items;
  packbuf_i_coming **asked;
  packbuf_error why, one;
  uint64_t n = 0;
  packbuf_status status = packbuf_i_parts_look(g, parts, count);
  if (status != PACKBUF_OK) return status;
  items = (packbuf_item *)packbuf_i_get_room(g, count, sizeof *items);
  asked = (packbuf_i_coming **)packbuf_i_get_room(g, count, sizeof *asked);
  if (!items || !asked) return packbuf_i_get_no_memory(g);
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_coming *part = &parts[i];
    packbuf_item *item = &items[n];
    if (part->object->status != PACKBUF_OK) continue;
    asked[n++] = part;
    item->key = part->key;
    item->generation = part->generation;
    item->account = g->options->account;
    if (!part->partial) continue;
    part->head.offset = 0;
    part->head.length = part->head_length;
    item->ranges = &part->head;
    item->range_count = 1;
  }
  if (n == 0) return PACKBUF_OK;
  memset(&why, 0, sizeof why);
  (void)packbuf_batch_get(g->store, items, n, g->options->deadline, &why);
  for (uint64_t i = 0; i < n; i++) {
    if (items[i].status == PACKBUF_OK) packbuf_i_part_take(g, asked[i], &items[i]);
    else packbuf_i_part_failed(g, asked[i], packbuf_i_item_why(items, i, asked[i]->index, &why, &one), &one);
  }
  return PACKBUF_OK;
}

/* ---- parts of objects ---- */

/* What a part needs of its object's arena. The view is set by the caller. */
static int packbuf_i_part_start(packbuf_i_coming *part) {
  part->held = (packbuf_i_held *)packbuf_arena_alloc(packbuf_i_part_arena(part), sizeof *part->held, 16);
  if (!part->held) return 0;
  memset(part->held, 0, sizeof *part->held);
  part->held->next = part->object->inner->held;
  part->object->inner->held = part->held;
  return 1;
}

/* Starts all objects and their own parts. */
static packbuf_i_coming *packbuf_i_get_start(packbuf_i_getting *g, const packbuf_ref *refs) {
  packbuf_i_coming *parts = (packbuf_i_coming *)packbuf_i_get_room(g, g->count, sizeof *parts);
  if (!parts) return NULL;
  for (uint64_t i = 0; i < g->count; i++) {
    packbuf_object *object = &g->objects[i];
    packbuf_i_coming *part = &parts[i];
    packbuf_error why;
    packbuf_status status;
    object->ref = refs[i];
    if (!object->ref.uri[0]) packbuf_i_copy_text(object->ref.uri, g->uri);
    part->object = object;
    part->index = i;
    part->fragment = PACKBUF_NOWHERE;
    part->key = "";
    status = packbuf_i_check_ref(&refs[i], &why);
    if (status != PACKBUF_OK) {
      packbuf_i_part_failed(g, part, status, &why);
      continue;
    }
    part->key = refs[i].key;
    part->generation = refs[i].generation;
    if (part->generation) {
      part->exact = 1;
      part->length = refs[i].length;
      part->head_length = refs[i].head_length;
    }
    part->partial = g->partial && refs[i].kind != PACKBUF_OBJECT_MANIFEST;
    status = packbuf_i_object_start(g->store, object, &why);
    if (status == PACKBUF_OK) {
      part->view = (packbuf_view *)packbuf_arena_alloc(packbuf_i_part_arena(part), sizeof *part->view, 16);
      if (!part->view || !packbuf_i_part_start(part)) status = packbuf_i_no_memory(&why);
    }
    if (status != PACKBUF_OK) packbuf_i_part_failed(g, part, status, &why);
  }
  return parts;
}

/* ---- manifests ---- */

/* The number that 16 hexadecimal digits are; 0: they are none. */
static int packbuf_i_hex16(const char *text, uint64_t *number) {
  *number = 0;
  for (unsigned i = 0; i < 16; i++) {
    const char c = text[i];
    const unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                           : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                  : 16;
    if (digit == 16) return 0;
    *number = *number << 4 | digit;
  }
  return 1;
}

/* A manifest's name for a fragment, "KEY@generation" (without one: the newest), in parts: the key into `key`, which has
 * room for PACKBUF_MAX_KEY + 1. */
static packbuf_status packbuf_i_split_name(packbuf_text name, uint64_t fragment, char *key, uint64_t *generation,
                                           packbuf_error *error) {
  size_t size = name.size;
  *generation = 0;
  if (size > 17 && name.data[size - 17] == '@' && packbuf_i_hex16(name.data + size - 16, generation)) size -= 17;
  if (size == 0 || size > PACKBUF_MAX_KEY || memchr(name.data, 0, size)) {
    packbuf_i_call_fail(error, PACKBUF_BAD_MANIFEST, "a fragment's key is no key of a store");
    if (error) error->fragment = fragment;
    return PACKBUF_BAD_MANIFEST;
  }
  memcpy(key, name.data, size);
  key[size] = 0;
  return PACKBUF_OK;
}

/* A manifest on its way: the part that is its own, and what it lists. */
typedef struct packbuf_i_fragment_list {
  const packbuf_i_coming *own;
  const packbuf_fragment *list;
  uint64_t count, rows;
  packbuf_i_coming *parts; /* of its fragments */
} packbuf_i_fragment_list;

/* Of a batch whose fields are in several fragments none has the whole schema. */
static packbuf_status packbuf_i_listed_schema(const packbuf_i_getting *g, const packbuf_i_coming *part,
                                            packbuf_error *error) {
  if (!g->options->fingerprint || part->listed->appends != PACKBUF_APPENDS_FIELDS) return PACKBUF_OK;
  (void)packbuf_i_part_unlike(part, PACKBUF_UNSUPPORTED_OPERATION,
                              "a fingerprint of fields that lie in several fragments cannot be checked", error);
  if (error) error->fragment = part->fragment;
  return PACKBUF_UNSUPPORTED_OPERATION;
}

/* The parts of the fragments that a manifest lists. */
static packbuf_status packbuf_i_list_parts(packbuf_i_getting *g, packbuf_i_fragment_list *listing,
                                           packbuf_error *error) {
  packbuf_arena *arena = packbuf_i_part_arena(listing->own);
  packbuf_object *object = listing->own->object;
  packbuf_view *views = (packbuf_view *)packbuf_i_array(arena, listing->count, sizeof *views);
  if (!views) return packbuf_i_no_memory(error);
  object->views = views;
  object->view_count = (uint32_t)listing->count;
  memset(views, 0, (size_t)listing->count * sizeof *views);
  for (uint64_t i = 0; i < listing->count; i++) {
    const packbuf_fragment *f = &listing->list[i];
    packbuf_i_coming *part = &listing->parts[i];
    char *key = (char *)packbuf_arena_alloc(arena, PACKBUF_MAX_KEY + 1, 1);
    packbuf_status status;
    if (!key) return packbuf_i_no_memory(error);
    status = packbuf_i_split_name(f->key, i, key, &part->generation, error);
    if (status != PACKBUF_OK) return status;
    part->object = object;
    part->index = listing->own->index;
    part->fragment = i;
    part->listed = f;
    part->key = key;
    part->length = f->length;
    part->head_length = f->head_length;
    part->exact = 1;
    part->partial = (uint8_t)g->partial;
    part->view = &views[i];
    status = packbuf_i_listed_schema(g, part, error);
    if (status != PACKBUF_OK) return status;
    if (!packbuf_i_part_start(part)) return packbuf_i_no_memory(error);
  }
  return PACKBUF_OK;
}

#define PACKBUF_I_FRAGMENT_ROOM 2048u /* about what is kept of one */

/* What the manifests among the objects list; *fragments: how many fragments, in all. */
static void packbuf_i_get_lists(packbuf_i_getting *g, const packbuf_i_coming *parts, packbuf_i_fragment_list *listings,
                                uint64_t *count, uint64_t *fragments) {
  *count = *fragments = 0;
  for (uint64_t i = 0; i < g->count; i++) {
    packbuf_i_fragment_list *listing = &listings[*count];
    packbuf_error why;
    packbuf_status status;
    if (parts[i].object->status != PACKBUF_OK || !packbuf_i_is_manifest(parts[i].view)) continue;
    listing->own = &parts[i];
    status = packbuf_manifest_read(parts[i].view, packbuf_i_part_arena(&parts[i]), &listing->list, &listing->count,
                                   &listing->rows, &why);
    if (status == PACKBUF_OK &&
        (listing->count > UINT32_MAX || listing->count > parts[i].view->limits.decoded_bytes / PACKBUF_I_FRAGMENT_ROOM))
      status = packbuf_i_call_fail(&why, PACKBUF_LIMIT, "more fragments than limits.decoded_bytes allows");
    if (status == PACKBUF_OK && listing->count == 0)
      status = packbuf_i_call_fail(&why, PACKBUF_BAD_MANIFEST, "the manifest lists no fragment: there is no batch");
    if (status != PACKBUF_OK) {
      packbuf_i_part_failed(g, &parts[i], status, &why);
      continue;
    }
    *fragments += listing->count;
    ++*count;
  }
}

/* The fragments of all manifests, in one round. */
static packbuf_status packbuf_i_get_fragments(packbuf_i_getting *g, packbuf_i_fragment_list *listings, uint64_t count,
                                              packbuf_i_coming *parts, uint64_t fragments) {
  uint64_t at = 0;
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_fragment_list *listing = &listings[i];
    packbuf_error why;
    packbuf_status status;
    listing->parts = &parts[at];
    at += listing->count;
    for (uint64_t k = 0; k < listing->count; k++) listing->parts[k].object = listing->own->object;
    status = packbuf_i_list_parts(g, listing, &why);
    if (status != PACKBUF_OK) packbuf_i_part_failed(g, listing->own, status, &why);
  }
  return packbuf_i_parts_fetch(g, parts, fragments);
}

static void packbuf_i_get_join(packbuf_i_getting *g, const packbuf_i_fragment_list *listing) {
  packbuf_object *object = listing->own->object;
  packbuf_arena *arena = packbuf_i_part_arena(listing->own);
  packbuf_error why;
  packbuf_join *join = (packbuf_join *)packbuf_arena_alloc(arena, sizeof *join, 16);
  packbuf_status status = join ? PACKBUF_OK : packbuf_i_no_memory(&why);
  if (status == PACKBUF_OK)
    status = packbuf_join_init(join, listing->list, object->views, listing->count, g->options->join_flags, arena, &why);
  if (status == PACKBUF_OK) object->join = join;
  else packbuf_i_part_failed(g, listing->own, status, &why);
}

/* ---- what is wanted ---- */

/* The rows of a fragment that a range of the whole chooses: those that are first + i * step. */
static packbuf_row_selection packbuf_i_rows_within(const packbuf_selection *rows, const packbuf_fragment *f) {
  const int down = rows->step < 0;
  const uint64_t step = down ? 0 - (uint64_t)rows->step : (uint64_t)rows->step, end = f->first_row + f->rows;
  uint64_t low, high, begin;
  if (rows->rows == 0 || f->rows == 0) return packbuf_rows_range(0, 0, 1);
  low = down ? rows->first - (rows->rows - 1) * step : rows->first; /* the least and the greatest that are chosen */
  high = low + (rows->rows - 1) * step;
  begin = f->first_row > low ? low + ((f->first_row - low) + step - 1) / step * step : low;
  if (begin >= end || begin > high) return packbuf_rows_range(0, 0, 1);
  if (high >= end) high = begin + (end - 1 - begin) / step * step;
  begin -= f->first_row;
  high -= f->first_row;
  if (!down) return packbuf_rows_range((int64_t)begin, (int64_t)high + 1, (int64_t)step);
  return packbuf_rows_range((int64_t)high, begin ? (int64_t)begin - 1 : PACKBUF_ROWS_BEGIN, rows->step);
}

/* A row of the whole that a list names, and where in the list. */
typedef struct packbuf_i_listed_row {
  uint64_t row, place;
} packbuf_i_listed_row;

/* A list of rows of the whole, so that each fragment finds its own: their cost is that of what it finds. */
typedef struct packbuf_i_row_list {
  const packbuf_i_listed_row *sorted;  /* by row */
  packbuf_i_listed_row *found, *spare; /* room for as many */
  int64_t *room;                       /* and for the rows of a fragment; NULL: there is no list */
  uint64_t count;
} packbuf_i_row_list;

static int packbuf_i_by_row(const void *context, const void *a, const void *b) {
  const uint64_t x = ((const packbuf_i_listed_row *)a)->row, y = ((const packbuf_i_listed_row *)b)->row;
  (void)context;
  return (x > y) - (x < y);
}

static int packbuf_i_by_place(const void *context, const void *a, const void *b) {
  const uint64_t x = ((const packbuf_i_listed_row *)a)->place, y = ((const packbuf_i_listed_row *)b)->place;
  (void)context;
  return (x > y) - (x < y);
}

/* How many rows of the list are before this one. */
static uint64_t packbuf_i_rows_before(const packbuf_i_row_list *list, uint64_t row) {
  uint64_t low = 0, high = list->count;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (list->sorted[middle].row < row) low = middle + 1;
    else high = middle;
  }
  return low;
}

/* The rows of a fragment that the list names, in the list's order. They stay until the next fragment's. */
static packbuf_row_selection packbuf_i_rows_listed(const packbuf_i_row_list *list, const packbuf_fragment *f) {
  const uint64_t from = packbuf_i_rows_before(list, f->first_row);
  const uint64_t count = packbuf_i_rows_before(list, f->first_row + f->rows) - from;
  const packbuf_i_listed_row *found;
  if (count) memcpy(list->found, list->sorted + from, (size_t)count * sizeof *list->found);
  found = (const packbuf_i_listed_row *)packbuf_i_sort(list->found, list->spare, count, sizeof *found,
                                                       packbuf_i_by_place, NULL);
  for (uint64_t i = 0; i < count; i++) list->room[i] = (int64_t)(found[i].row - f->first_row);
  return packbuf_rows_index(list->room, count);
}

/* Chooses in a fragment that lacks some of what the patterns name: those that match something here alone, as if the
 * others were not there. found[i] is set for those that do. */
static packbuf_status packbuf_i_select_some(const packbuf_i_getting *g, const packbuf_view *view,
                                            packbuf_row_selection rows, packbuf_arena *arena, uint8_t *found,
                                            packbuf_selection *selection, packbuf_error *error) {
  static const char *const all = "**", *const none = "!**";
  const packbuf_wanted *wanted = g->wanted;
  const char **kept;
  packbuf_arena scratch;
  size_t count = 0;
  packbuf_status status = PACKBUF_OK;
  packbuf_arena_init(&scratch, packbuf_i_store_allocator(g->store));
  kept = (const char **)packbuf_i_array(&scratch, (uint64_t)wanted->pattern_count + 1, sizeof *kept);
  if (!kept) status = packbuf_i_no_memory(error);
  else if (wanted->patterns[0][0] == '!') kept[count++] = all;
  for (size_t i = 0; status == PACKBUF_OK && i < wanted->pattern_count; i++) {
    const char *pattern = wanted->patterns[i] + (wanted->patterns[i][0] == '!');
    packbuf_selection tried;
    status = packbuf_select(view, 0, &pattern, 1, packbuf_rows_range(0, 0, 1), &scratch, &tried, error);
    if (status == PACKBUF_OK) {
      kept[count++] = wanted->patterns[i];
      found[i] = 1;
    } else if (status == PACKBUF_NOT_FOUND) status = PACKBUF_OK;
  }
  if (status == PACKBUF_OK && count == 0) kept[count++] = none;
  if (status == PACKBUF_OK)
    status = packbuf_select(view, 0, kept, view->field_count ? count : 0, rows, arena, selection, error);
  packbuf_arena_free(&scratch);
  return status;
}

/* Chooses in one view; `listing` and `found` for fragments, else NULL. */
static packbuf_status packbuf_i_select_view(const packbuf_i_getting *g, const packbuf_view *view,
                                            packbuf_row_selection rows, packbuf_arena *arena, uint8_t *found,
                                            packbuf_selection *selection, packbuf_error *error) {
  const packbuf_wanted *wanted = g->wanted;
  const packbuf_status status =
      packbuf_select(view, 0, wanted->patterns, wanted->pattern_count, rows, arena, selection, error);
  if (found && status == PACKBUF_NOT_FOUND) return packbuf_i_select_some(g, view, rows, arena, found, selection, error);
  if (found && status == PACKBUF_OK) memset(found, 1, wanted->pattern_count);
  return status;
}

/* The rows of the whole that are wanted of a manifest; `list` when they are named one by one. */
static packbuf_status packbuf_i_rows_of_whole(packbuf_i_getting *g, uint64_t rows, packbuf_selection *chosen,
                                              packbuf_i_row_list *list, packbuf_error *error) {
  packbuf_i_listed_row *named;
  packbuf_status status;
  memset(chosen, 0, sizeof *chosen);
  memset(list, 0, sizeof *list);
  status = packbuf_i_choose_rows(&g->wanted->rows, rows, &g->scratch, chosen, error);
  if (status != PACKBUF_OK || !chosen->index) return status;
  named = (packbuf_i_listed_row *)packbuf_i_array(&g->scratch, chosen->rows, sizeof *named);
  list->found = (packbuf_i_listed_row *)packbuf_i_array(&g->scratch, chosen->rows, sizeof *named);
  list->spare = (packbuf_i_listed_row *)packbuf_i_array(&g->scratch, chosen->rows, sizeof *named);
  list->room = (int64_t *)packbuf_i_array(&g->scratch, chosen->rows + 1, sizeof *list->room);
  if (!named || !list->found || !list->spare || !list->room) return packbuf_i_no_memory(error);
  list->count = chosen->rows;
  for (uint64_t i = 0; i < chosen->rows; i++) {
    named[i].row = chosen->index[i];
    named[i].place = i;
  }
  list->sorted = (const packbuf_i_listed_row *)packbuf_i_sort(named, list->spare, list->count, sizeof *named,
                                                              packbuf_i_by_row, NULL);
  if (list->sorted != named) list->spare = named;
  return PACKBUF_OK;
}

/* The selections of one object. listing: NULL, or its manifest. */
static packbuf_status packbuf_i_get_chosen(packbuf_i_getting *g, packbuf_object *object,
                                           const packbuf_i_fragment_list *listing, packbuf_error *error) {
  const packbuf_wanted *wanted = g->wanted;
  packbuf_arena *arena = &object->inner->arena;
  packbuf_selection *selections = (packbuf_selection *)packbuf_i_array(arena, object->view_count, sizeof *selections);
  packbuf_selection *values = NULL, whole;
  packbuf_i_row_list list;
  uint8_t *found = listing ? (uint8_t *)packbuf_i_get_room(g, wanted->pattern_count, 1) : NULL;
  packbuf_status status = PACKBUF_OK;
  if (wanted->values) values = (packbuf_selection *)packbuf_i_array(arena, object->view_count, sizeof *values);
  if (!selections || (listing && !found) || (wanted->values && !values)) return packbuf_i_no_memory(error);
  if (listing) status = packbuf_i_rows_of_whole(g, listing->rows, &whole, &list, error);
  for (uint32_t i = 0; status == PACKBUF_OK && i < object->view_count; i++) {
    const packbuf_row_selection rows = !listing    ? wanted->rows
                                       : list.room ? packbuf_i_rows_listed(&list, &listing->list[i])
                                                   : packbuf_i_rows_within(&whole, &listing->list[i]);
    status = packbuf_i_select_view(g, &object->views[i], rows, arena, found, &selections[i], error);
    if (status == PACKBUF_OK && values)
      status = packbuf_select(&object->views[i], 1, NULL, 0, packbuf_rows_all(), arena, &values[i], error);
    if (status != PACKBUF_OK && listing && error) error->fragment = i;
  }
  for (size_t i = 0; status == PACKBUF_OK && listing && object->view_count && i < wanted->pattern_count; i++)
    if (!found[i])
      status = packbuf_i_item_fail(error, PACKBUF_NOT_FOUND, "no fragment has what the pattern names",
                                   wanted->patterns[i], PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  object->selection = selections;
  object->values = values;
  return status;
}

/* ---- ranges ---- */

static unsigned packbuf_i_get_range_flags(const packbuf_i_getting *g) {
  return g->wanted->flags | (g->options->level >= PACKBUF_LEVEL_FULL ? (unsigned)PACKBUF_RANGES_CHUNKS : 0u);
}

/* The ranges of a part that are wanted. */
static packbuf_status packbuf_i_part_ranges(packbuf_i_getting *g, packbuf_i_coming *part, packbuf_error *error) {
  const packbuf_object *object = part->object;
  const uint64_t i = part->fragment == PACKBUF_NOWHERE ? 0 : part->fragment;
  packbuf_selection both[2];
  both[0] = object->selection[i];
  if (object->values) both[1] = object->values[i];
  return packbuf_select_ranges(both, object->values ? 2 : 1, g->wanted->gap, packbuf_i_get_range_flags(g), &g->scratch,
                               &part->ranges, &part->range_count, error);
}

/* Opens a part again, with its ranges, which lie at `bytes`: end to end, or (whole 1) where they are in the whole. */
static packbuf_status packbuf_i_part_reopen(packbuf_i_getting *g, packbuf_i_coming *part, packbuf_view *view,
                                            packbuf_arena *arena, const uint8_t *bytes, int whole,
                                            packbuf_error *error) {
  const uint64_t head = part->view->head_length + part->view->index_length;
  packbuf_fetched *fetched = (packbuf_fetched *)packbuf_i_array(arena, part->range_count, sizeof *fetched);
  uint64_t at = 0;
  packbuf_status status;
  if (!fetched) return packbuf_i_no_memory(error);
  for (uint64_t i = 0; i < part->range_count; i++) {
    fetched[i].offset = part->ranges[i].offset;
    fetched[i].length = part->ranges[i].length;
    fetched[i].bytes = bytes + (whole ? fetched[i].offset : at);
    at += fetched[i].length;
  }
  status = packbuf_open_partial(view, part->held->whole.data, head, fetched, part->range_count, 0, g->options->limits,
                                error);
  if (status != PACKBUF_OK || !(packbuf_i_get_range_flags(g) & (unsigned)PACKBUF_RANGES_CHUNKS)) return status;
  status = packbuf_verify(view, PACKBUF_LEVEL_INDEX, error); /* the checksums of the data lie there */
  return status == PACKBUF_OK ? packbuf_verify_fetched(view, NULL, error) : status;
}

/* What came of the ranges of a part. */
static packbuf_status packbuf_i_part_fetched(packbuf_i_getting *g, packbuf_i_coming *part, packbuf_item *item,
                                             packbuf_error *error) {
  uint64_t bytes = 0;
  part->held->ranges = item->lease;
  for (uint64_t i = 0; i < part->range_count; i++) bytes += part->ranges[i].length;
  if (item->lease.size != bytes || item->got != bytes)
    return packbuf_i_part_unlike(part, PACKBUF_SHORT_READ, "fewer bytes came than the ranges have", error);
  part->object->moved += bytes;
  return packbuf_i_part_reopen(g, part, part->view, packbuf_i_part_arena(part), (const uint8_t *)item->lease.data, 0,
                               error);
}

/* The whole is there: of what is wanted the checksums alone are left, where they are asked for and were not verified
 * with all the rest. */
static packbuf_status packbuf_i_part_whole(packbuf_i_getting *g, packbuf_i_coming *part, packbuf_error *error) {
  packbuf_view view;
  packbuf_status status;
  if (g->options->level >= PACKBUF_LEVEL_FULL || !(g->wanted->flags & (unsigned)PACKBUF_RANGES_CHUNKS))
    return PACKBUF_OK;
  status = packbuf_i_part_ranges(g, part, error);
  if (status != PACKBUF_OK) return status;
  return packbuf_i_part_reopen(g, part, &view, &g->scratch, (const uint8_t *)part->held->whole.data, 1, error);
}

/* The last round: the ranges of all parts. */
static packbuf_status packbuf_i_parts_ranges(packbuf_i_getting *g, packbuf_i_coming *parts, uint64_t count) {
  packbuf_item *items = (packbuf_item *)packbuf_i_get_room(g, count, sizeof *items);
  packbuf_i_coming **asked = (packbuf_i_coming **)packbuf_i_get_room(g, count, sizeof *asked);
  packbuf_error why, one;
  packbuf_status status;
  uint64_t n = 0;
  if (!items || !asked) return packbuf_i_get_no_memory(g);
  for (uint64_t i = 0; i < count; i++) {
    packbuf_i_coming *part = &parts[i];
    if (part->object->status != PACKBUF_OK || packbuf_i_is_manifest(part->view)) continue;
    memset(&one, 0, sizeof one);
    status = part->partial ? packbuf_i_part_ranges(g, part, &one) : packbuf_i_part_whole(g, part, &one);
    if (status != PACKBUF_OK) packbuf_i_part_failed(g, part, status, &one);
    if (status != PACKBUF_OK || !part->partial || part->range_count == 0) continue;
    asked[n] = part;
    items[n].key = part->key;
    items[n].generation = part->generation;
    items[n].account = g->options->account;
    items[n].ranges = part->ranges;
    items[n++].range_count = part->range_count;
  }
  if (n == 0) return PACKBUF_OK;
  memset(&why, 0, sizeof why);
  (void)packbuf_batch_get(g->store, items, n, g->options->deadline, &why);
  for (uint64_t i = 0; i < n; i++) {
    memset(&one, 0, sizeof one);
    if (items[i].status == PACKBUF_OK) status = packbuf_i_part_fetched(g, asked[i], &items[i], &one);
    else status = packbuf_i_item_why(items, i, asked[i]->index, &why, &one);
    if (status != PACKBUF_OK) packbuf_i_part_failed(g, asked[i], status, &one);
  }
  return PACKBUF_OK;
}

/* ---- all of it ---- */

/* Chooses what is wanted of objects that are there, and fetches it. */
static packbuf_status packbuf_i_get_wanted(packbuf_i_getting *g, packbuf_i_coming *parts,
                                           const packbuf_i_fragment_list *listings, uint64_t count,
                                           packbuf_i_coming *fragments, uint64_t fragment_count) {
  const packbuf_i_fragment_list *listing = listings, *end = listings + count; /* in the order of the objects */
  packbuf_status status;
  for (uint64_t i = 0; i < g->count; i++) {
    const int manifest = listing < end && listing->own == &parts[i];
    packbuf_error why;
    memset(&why, 0, sizeof why);
    if (parts[i].object->status == PACKBUF_OK) {
      status = packbuf_i_get_chosen(g, parts[i].object, manifest ? listing : NULL, &why);
      if (status != PACKBUF_OK) packbuf_i_part_failed(g, &parts[i], status, &why);
    }
    listing += manifest;
  }
  status = packbuf_i_parts_ranges(g, parts, g->count);
  if (status == PACKBUF_OK && fragment_count) status = packbuf_i_parts_ranges(g, fragments, fragment_count);
  return status;
}

static packbuf_status packbuf_i_get_run(packbuf_i_getting *g, const packbuf_ref *refs) {
  packbuf_i_coming *parts = packbuf_i_get_start(g, refs), *fragments = NULL;
  packbuf_i_fragment_list *listings = NULL;
  uint64_t manifests = 0, fragment_count = 0;
  packbuf_status status;
  if (!parts) return packbuf_i_get_no_memory(g);
  status = packbuf_i_parts_fetch(g, parts, g->count);
  for (uint64_t i = 0; i < g->count; i++) {
    if (parts[i].object->status != PACKBUF_OK) continue;
    if (packbuf_i_is_manifest(parts[i].view)) manifests++;
    parts[i].object->views = parts[i].view;
    parts[i].object->view_count = 1;
  }
  if (status == PACKBUF_OK && manifests) {
    listings = (packbuf_i_fragment_list *)packbuf_i_get_room(g, manifests, sizeof *listings);
    if (!listings) return packbuf_i_get_no_memory(g);
    packbuf_i_get_lists(g, parts, listings, &manifests, &fragment_count);
    fragments = (packbuf_i_coming *)packbuf_i_get_room(g, fragment_count, sizeof *fragments);
    if (!fragments) return packbuf_i_get_no_memory(g);
    status = packbuf_i_get_fragments(g, listings, manifests, fragments, fragment_count);
  }
  if (status == PACKBUF_OK && g->wanted)
    status = packbuf_i_get_wanted(g, parts, listings, manifests, fragments, fragment_count);
  for (uint64_t i = 0; status == PACKBUF_OK && i < manifests; i++)
    if (listings[i].own->object->status == PACKBUF_OK) packbuf_i_get_join(g, &listings[i]);
  return status;
}

/* An object that failed holds nothing but what became of it. */
static void packbuf_i_get_end(packbuf_i_getting *g, const packbuf_ref *refs) {
  for (uint64_t i = 0; i < g->count; i++) {
    const packbuf_status status = g->objects[i].status;
    if (status == PACKBUF_OK) continue;
    packbuf_object_release(&g->objects[i]);
    g->objects[i].status = status;
    g->objects[i].ref = refs[i];
  }
}

static const packbuf_get_options packbuf_i_get_plainly = {PACKBUF_FOREVER, 0, 0, 0, NULL, NULL};

PACKBUF_API packbuf_status packbuf_get_many(packbuf_store *store, const packbuf_ref *refs, uint64_t count,
                                            const packbuf_wanted *wanted, const packbuf_get_options *options,
                                            packbuf_object *objects, packbuf_error *error) {
  packbuf_i_getting g;
  if (!store || (count && (!refs || !objects)) || (wanted && wanted->pattern_count && !wanted->patterns))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a store, refs, objects and patterns must be given");
  if (wanted && (wanted->flags & ~(unsigned)PACKBUF_RANGES_CHUNKS))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "a flag is unknown");
  if (count) memset(objects, 0, (size_t)count * sizeof *objects);
  memset(&g, 0, sizeof g);
  g.store = store;
  g.wanted = wanted;
  g.options = options ? options : &packbuf_i_get_plainly;
  g.objects = objects;
  g.count = count;
  g.in_place = (store->capabilities & PACKBUF_CAN_IN_PLACE) != 0;
  g.partial = wanted && !g.in_place && (store->capabilities & PACKBUF_CAN_RANGES) != 0;
  packbuf_i_first_start(&g.first, error);
  packbuf_arena_init(&g.scratch, packbuf_i_store_allocator(store));
  for (uint64_t i = 0; i < count && !g.uri[0]; i++)
    if (refs[i].uri[0] == 0) packbuf_i_store_uri(store, g.options->deadline, g.uri);
  if (count) (void)packbuf_i_get_run(&g, refs);
  packbuf_i_get_end(&g, refs);
  packbuf_arena_free(&g.scratch);
  return g.first.status;
}

PACKBUF_API packbuf_status packbuf_get_select(packbuf_store *store, const packbuf_ref *ref,
                                              const packbuf_wanted *wanted, const packbuf_get_options *options,
                                              packbuf_object *object, packbuf_error *error) {
  if (!object) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "an object must be given");
  memset(object, 0, sizeof *object);
  if (!wanted) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "what is wanted must be given");
  return packbuf_get_many(store, ref, 1, wanted, options, object, error);
}

PACKBUF_API packbuf_status packbuf_get(packbuf_store *store, const packbuf_ref *ref, const packbuf_get_options *options,
                                       packbuf_object *object, packbuf_error *error) {
  return packbuf_get_many(store, ref, 1, NULL, options, object, error);
}
