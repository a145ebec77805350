/* exchange/arrow_schema.c: the type that a node has in Arrow. It follows from the head alone. The arrays of
 * arrow_export.c follow what is decided here.
 * May use: owned, lend, arrow_words. Must not know: data. */

/* ---- one schema ---- */

/* What a type is, before it is written down. */
typedef struct packbuf_i_draft {
  packbuf_text name;
  const char *format;
  int64_t flags;
  uint32_t children;
  uint32_t node; /* whose metadata it gets; PACKBUF_NO_NODE: those of the batch */
  int whole;     /* 1: it has metadata of the node or batch */
  packbuf_text keys[3], texts[3];
  unsigned pairs; /* metadata that say what the format does not */
} packbuf_i_draft;

static void packbuf_i_schema_release(struct ArrowSchema *schema) {
  packbuf_i_export_owned *owned = (packbuf_i_export_owned *)schema->private_data;
  for (int64_t i = 0; i < schema->n_children; i++) {
    struct ArrowSchema *child = schema->children[i];
    if (child->release) child->release(child);
  }
  schema->release = NULL;
  packbuf_i_disown(owned);
}

static packbuf_i_draft packbuf_i_draft_of(packbuf_text name, const char *format, uint32_t children) {
  packbuf_i_draft draft;
  memset(&draft, 0, sizeof draft);
  draft.name = name;
  draft.format = format;
  draft.children = children;
  return draft;
}

static void packbuf_i_say(packbuf_i_draft *draft, const char *key, packbuf_text text) {
  draft->keys[draft->pairs] = packbuf_i_text_of(key);
  draft->texts[draft->pairs++] = text;
}

/* The first metadata pair of a node (or of the batch): they are in the order of the nodes. */
static packbuf_status packbuf_i_first_pair(const packbuf_view *view, uint32_t node, uint32_t *first,
                                           packbuf_error *error) {
  uint32_t low = 0, high = view->metadata_count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    packbuf_metadata pair;
    const packbuf_status status = packbuf_get_metadata(view, middle, &pair, error);
    if (status != PACKBUF_OK) return status;
    if (pair.node < node) low = middle + 1;
    else high = middle;
  }
  *first = low;
  return PACKBUF_OK;
}

static void packbuf_i_push_pair(packbuf_i_sink *sink, packbuf_text key, packbuf_text text) {
  const int32_t sizes[2] = {(int32_t)key.size, (int32_t)text.size}; /* of strings of the head: below 2^31 together */
  packbuf_i_push(sink, &sizes[0], 4);
  packbuf_i_push(sink, key.data, key.size);
  packbuf_i_push(sink, &sizes[1], 4);
  packbuf_i_push(sink, text.data, text.size);
}

/* The pairs that a type gets, into the sink. */
static packbuf_status packbuf_i_push_pairs(const packbuf_view *view, const packbuf_i_draft *draft, int32_t count,
                                           packbuf_i_sink *sink, int32_t *pushed, packbuf_error *error) {
  uint32_t next = 0;
  packbuf_status status = PACKBUF_OK;
  *pushed = 0;
  packbuf_i_push(sink, &count, 4);
  for (unsigned i = 0; i < draft->pairs; i++, (*pushed)++) packbuf_i_push_pair(sink, draft->keys[i], draft->texts[i]);
  if (draft->whole) status = packbuf_i_first_pair(view, draft->node, &next, error);
  for (; draft->whole && status == PACKBUF_OK && next < view->metadata_count; next++) {
    packbuf_metadata pair;
    status = packbuf_get_metadata(view, next, &pair, error);
    if (status != PACKBUF_OK || pair.node != draft->node) break;
    if (packbuf_i_reserved_key(pair.key) || sink->size + pair.key.size + pair.text.size > INT32_MAX) continue;
    packbuf_i_push_pair(sink, pair.key, pair.text);
    (*pushed)++;
  }
  return status;
}

static packbuf_status packbuf_i_set_pairs(const packbuf_export *what, const packbuf_i_draft *draft,
                                          packbuf_arena *arena, struct ArrowSchema *out, packbuf_error *error) {
  packbuf_i_sink sink;
  int32_t count = 0;
  packbuf_status status;
  memset(&sink, 0, sizeof sink);
  status = packbuf_i_push_pairs(what->selection->view, draft, 0, &sink, &count, error);
  if (status != PACKBUF_OK || count == 0) return status;
  sink.capacity = sink.size;
  sink.size = 0;
  sink.at = (uint8_t *)packbuf_i_array(arena, sink.capacity, 1);
  if (!sink.at) return packbuf_i_no_memory(error);
  out->metadata = (const char *)sink.at;
  return packbuf_i_push_pairs(what->selection->view, draft, count, &sink, &count, error);
}

static const char *packbuf_i_own_text(packbuf_arena *arena, packbuf_text text) {
  char *copy = (char *)packbuf_i_array(arena, (uint64_t)text.size + 1, 1);
  if (!copy) return NULL;
  if (text.size) memcpy(copy, text.data, text.size);
  copy[text.size] = 0;
  return copy;
}

/* Fills *out, whose children are released ones yet. */
static packbuf_status packbuf_i_make_schema(const packbuf_export *what, const packbuf_i_draft *draft,
                                            struct ArrowSchema *out, packbuf_error *error) {
  packbuf_i_export_owned *owned;
  struct ArrowSchema *children;
  if (draft->name.size && memchr(draft->name.data, 0, draft->name.size))
    return packbuf_i_fail(error, PACKBUF_UNENCODABLE, "a name with a NUL byte, which Arrow's names end at",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  owned = packbuf_i_own(what);
  if (!owned) return packbuf_i_no_memory(error);
  out->private_data = owned;
  out->release = packbuf_i_schema_release;
  out->flags = draft->flags;
  out->name = packbuf_i_own_text(&owned->arena, draft->name);
  out->format = packbuf_i_own_text(&owned->arena, packbuf_i_text_of(draft->format));
  out->children = (struct ArrowSchema **)packbuf_i_array(&owned->arena, draft->children, sizeof *out->children);
  children = (struct ArrowSchema *)packbuf_i_array(&owned->arena, draft->children, sizeof *children);
  if (!out->name || !out->format || !out->children || !children) return packbuf_i_no_memory(error);
  memset(children, 0, draft->children * sizeof *children);
  for (uint32_t i = 0; i < draft->children; i++) out->children[i] = &children[i];
  out->n_children = (int64_t)draft->children;
  return packbuf_i_set_pairs(what, draft, &owned->arena, out, error);
}

/* ---- elements ---- */

/* Arrow's format of a number; NULL: it has none. bfloat16 and float8 are unsigned integers of their bits. */
static const char *packbuf_i_arrow_format(packbuf_dtype dtype) {
  static const char *const ints[2][4] = {{"c", "s", "i", "l"}, {"C", "S", "I", "L"}};
  const unsigned log = dtype.bits == 8 ? 0 : dtype.bits == 16 ? 1 : dtype.bits == 32 ? 2 : 3;
  switch (dtype.code) {
    case PACKBUF_DTYPE_INT:
    case PACKBUF_DTYPE_UINT: return ints[dtype.code == PACKBUF_DTYPE_UINT][log];
    case PACKBUF_DTYPE_FLOAT: return log == 1 ? "e" : log == 2 ? "f" : "g";
    case PACKBUF_DTYPE_BFLOAT: return "S";
    case PACKBUF_DTYPE_BOOL: return "b";
    case PACKBUF_DTYPE_FLOAT8_E4M3FN:
    case PACKBUF_DTYPE_FLOAT8_E5M2: return "C";
    case PACKBUF_DTYPE_COMPLEX: return "+w:2";
    default: return NULL;
  }
}

/* The format of time stamps of a unit, followed by the time zone; NULL: it is no unit that Arrow has. */
static const char *packbuf_i_time_format(packbuf_text unit) {
  static const char *const units[][2] = {{"s", "tss:"}, {"ms", "tsm:"}, {"us", "tsu:"}, {"ns", "tsn:"}, {"D", "tdD"}};
  for (unsigned i = 0; i < 5; i++)
    if (packbuf_i_text_is(unit, units[i][0])) return units[i][1];
  return NULL;
}

/* The format of a node's elements that are times; NULL: they are none. */
static const char *packbuf_i_node_time(const packbuf_node *node) {
  if (node->logical_type != 1 || node->dtype.code != PACKBUF_DTYPE_INT || node->dtype.bits != 64) return NULL;
  return packbuf_i_time_format(node->parameter);
}

/* The metadata text of a node; size 0: none. */
static packbuf_text packbuf_i_node_text(const packbuf_view *view, uint32_t node, const char *key) {
  packbuf_metadata pair;
  packbuf_text none = {"", 0};
  uint32_t next = 0;
  if (packbuf_i_first_pair(view, node, &next, NULL) != PACKBUF_OK) return none;
  for (; packbuf_get_metadata(view, next, &pair, NULL) == PACKBUF_OK && pair.node == node; next++)
    if (packbuf_i_text_is(pair.key, key)) return pair.text;
  return none;
}

/* The draft of a type, completed by what the elements of a node are. */
static packbuf_status packbuf_i_element_schema(const packbuf_export *what, const packbuf_node *node,
                                               packbuf_i_draft *draft, struct ArrowSchema *out, packbuf_error *error) {
  char zoned[64];
  const char *time = packbuf_i_node_time(node);
  packbuf_status status;
  draft->format = packbuf_i_arrow_format(node->dtype);
  if (!draft->format || !packbuf_dtype_name(node->dtype) || node->dtype.bits % 8)
    return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_DTYPE, "a dtype that Arrow has no format for", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (time) {
    const packbuf_text zone = packbuf_i_node_text(what->selection->view, node->index, PACKBUF_I_TIMEZONE_KEY);
    const size_t size = strlen(time);
    memcpy(zoned, time, size + 1);
    if (time[1] == 's' && zone.size < sizeof zoned - size && !memchr(zone.data, 0, zone.size)) {
      memcpy(zoned + size, zone.data, zone.size);
      zoned[size + zone.size] = 0;
    }
    draft->format = zoned;
  }
  if (node->dtype.code == PACKBUF_DTYPE_BFLOAT || node->dtype.code == PACKBUF_DTYPE_COMPLEX ||
      node->dtype.code == PACKBUF_DTYPE_FLOAT8_E4M3FN || node->dtype.code == PACKBUF_DTYPE_FLOAT8_E5M2)
    packbuf_i_say(draft, PACKBUF_I_DTYPE_KEY, packbuf_i_text_of(packbuf_dtype_name(node->dtype)));
  draft->children = node->dtype.code == PACKBUF_DTYPE_COMPLEX;
  status = packbuf_i_make_schema(what, draft, out, error);
  if (status == PACKBUF_OK && draft->children) {
    const packbuf_i_draft part = packbuf_i_draft_of(packbuf_i_text_of("item"), node->dtype.bits == 64 ? "f" : "g", 0);
    status = packbuf_i_make_schema(what, &part, out->children[0], error);
  }
  return status;
}

static packbuf_status packbuf_i_items_schema(const packbuf_export *what, const packbuf_node *node,
                                             struct ArrowSchema *out, packbuf_error *error) {
  packbuf_i_draft item = packbuf_i_draft_of(packbuf_i_text_of("item"), "", 0);
  return packbuf_i_element_schema(what, node, &item, out, error);
}

/* ---- leaves ---- */

/* Dense cells: of rank 0 numbers, of rank 1 lists of one size, above that arrow.fixed_shape_tensor. */
static packbuf_status packbuf_i_dense_schema(const packbuf_export *what, const packbuf_node *node,
                                             packbuf_i_draft *draft, struct ArrowSchema *out, packbuf_error *error) {
  char format[24], text[16 + PACKBUF_MAX_RANK * 21];
  uint64_t each;
  packbuf_status status;
  if (node->rank == 0) return packbuf_i_element_schema(what, node, draft, out, error);
  if (!packbuf_i_product(node->shape, node->rank, &each) || each > INT32_MAX)
    return packbuf_i_fail(error, PACKBUF_UNENCODABLE, "a cell of 2^31 elements or more, which Arrow's lists cannot be",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  packbuf_i_write_number(format, "+w:", each);
  draft->format = format;
  draft->children = 1;
  if (node->rank > 1) {
    size_t size = 0;
    for (unsigned i = 0; i < node->rank; i++) {
      packbuf_i_write_number(text + size, i ? "," : "{\"shape\":[", node->shape[i]);
      size += strlen(text + size);
    }
    memcpy(text + size, "]}", 3);
    packbuf_i_say(draft, PACKBUF_I_EXTENSION_NAME, packbuf_i_text_of("arrow.fixed_shape_tensor"));
    packbuf_i_say(draft, PACKBUF_I_EXTENSION_TEXT, packbuf_i_text_of(text));
  }
  status = packbuf_i_make_schema(what, draft, out, error);
  return status == PACKBUF_OK ? packbuf_i_items_schema(what, node, out->children[0], error) : status;
}

/* Ragged numbers: lists; of rank 2 and more structs of the elements and the shape. */
static packbuf_status packbuf_i_ragged_schema(const packbuf_export *what, const packbuf_node *node,
                                              packbuf_i_draft *draft, struct ArrowSchema *out, packbuf_error *error) {
  const packbuf_i_draft data = packbuf_i_draft_of(packbuf_i_text_of("data"), "+L", 1);
  const packbuf_i_draft sizes = packbuf_i_draft_of(packbuf_i_text_of("shape"), "+L", 1);
  const packbuf_i_draft size = packbuf_i_draft_of(packbuf_i_text_of("item"), "l", 0);
  packbuf_status status;
  draft->format = node->rank > 1 ? "+s" : "+L";
  draft->children = node->rank > 1 ? 2 : 1;
  if (node->rank > 1)
    packbuf_i_say(draft, PACKBUF_I_CODEC_KEY, packbuf_i_text_of(packbuf_codec_name((packbuf_codec)node->codec)));
  status = packbuf_i_make_schema(what, draft, out, error);
  if (status != PACKBUF_OK || node->rank <= 1)
    return status == PACKBUF_OK ? packbuf_i_items_schema(what, node, out->children[0], error) : status;
  status = packbuf_i_make_schema(what, &data, out->children[0], error);
  if (status == PACKBUF_OK) status = packbuf_i_items_schema(what, node, out->children[0]->children[0], error);
  if (status == PACKBUF_OK) status = packbuf_i_make_schema(what, &sizes, out->children[1], error);
  return status == PACKBUF_OK ? packbuf_i_make_schema(what, &size, out->children[1]->children[0], error) : status;
}

static packbuf_status packbuf_i_node_schema(const packbuf_export *what, const packbuf_node *node, packbuf_text name,
                                            struct ArrowSchema *out, packbuf_error *error);

/* The chosen children of a node, as children from `at` on. */
static packbuf_status packbuf_i_children_schema(const packbuf_export *what, const packbuf_node *parent,
                                                struct ArrowSchema *out, int64_t at, packbuf_error *error) {
  packbuf_i_below below = packbuf_i_chosen_below(what->selection, parent);
  packbuf_node child;
  packbuf_status status;
  while ((status = packbuf_i_next_below(&below, 0, &child, error)) == PACKBUF_OK) {
    status = packbuf_i_node_schema(what, &child, child.name, out->children[at++], error);
    if (status != PACKBUF_OK) return status;
  }
  return status == PACKBUF_NOT_FOUND ? PACKBUF_OK : status;
}

/* Media: their bytes; with attributes structs of bytes and attributes. */
static packbuf_status packbuf_i_media_schema(const packbuf_export *what, const packbuf_node *node,
                                             packbuf_i_draft *draft, struct ArrowSchema *out, packbuf_error *error) {
  const packbuf_i_draft bytes = packbuf_i_draft_of(packbuf_i_text_of("bytes"), "Z", 0);
  uint32_t attributes;
  packbuf_status status = packbuf_i_count_below(packbuf_i_chosen_below(what->selection, node), 0, &attributes, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_say(draft, PACKBUF_I_CODEC_KEY, packbuf_i_text_of("media_bytes"));
  draft->format = attributes ? "+s" : "Z";
  draft->children = attributes ? attributes + 1 : 0;
  status = packbuf_i_make_schema(what, draft, out, error);
  if (status != PACKBUF_OK || !attributes) return status;
  status = packbuf_i_make_schema(what, &bytes, out->children[0], error);
  return status == PACKBUF_OK ? packbuf_i_children_schema(what, node, out, 1, error) : status;
}

static packbuf_status packbuf_i_leaf_schema(const packbuf_export *what, const packbuf_node *node,
                                            packbuf_i_draft *draft, struct ArrowSchema *out, packbuf_error *error) {
  packbuf_i_draft item = packbuf_i_draft_of(packbuf_i_text_of("item"), "", 0);
  packbuf_status status;
  const char *codec = packbuf_codec_name((packbuf_codec)node->codec);
  draft->format = "Z";
  switch (node->codec) {
    case PACKBUF_CODEC_NULL: draft->format = "n"; break;
    case PACKBUF_CODEC_NDARRAY: return packbuf_i_dense_schema(what, node, draft, out, error);
    case PACKBUF_CODEC_RAGGED_TENSOR:
    case PACKBUF_CODEC_TYPED_RAGGED: return packbuf_i_ragged_schema(what, node, draft, out, error);
    case PACKBUF_CODEC_BYTES_RAGGED: break;
    case PACKBUF_CODEC_MEDIA_BYTES: return packbuf_i_media_schema(what, node, draft, out, error);
    case PACKBUF_CODEC_MEDIA_LIST_RAGGED:
      draft->format = "+L";
      draft->children = 1;
      status = packbuf_i_make_schema(what, draft, out, error);
      return status == PACKBUF_OK ? packbuf_i_media_schema(what, node, &item, out->children[0], error) : status;
    case PACKBUF_CODEC_UTF8_RAGGED: draft->format = "U"; break;
    case PACKBUF_CODEC_JSON_RAGGED:
      draft->format = "U";
      packbuf_i_say(draft, PACKBUF_I_EXTENSION_NAME, packbuf_i_text_of("arrow.json"));
      packbuf_i_say(draft, PACKBUF_I_EXTENSION_TEXT, packbuf_i_text_of(""));
      packbuf_i_say(draft, PACKBUF_I_CODEC_KEY, packbuf_i_text_of(codec));
      break;
    case PACKBUF_CODEC_MSGPACK_RAGGED: packbuf_i_say(draft, PACKBUF_I_CODEC_KEY, packbuf_i_text_of(codec)); break;
    case PACKBUF_CODEC_OPAQUE_RAGGED:
      packbuf_i_say(draft, PACKBUF_I_CODEC_KEY, packbuf_i_text_of(codec));
      packbuf_i_say(draft, PACKBUF_I_SERIALIZER_KEY, node->parameter);
      break;
    default:
      return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_CODEC, packbuf_status_text(PACKBUF_UNSUPPORTED_CODEC),
                            PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  }
  return packbuf_i_make_schema(what, draft, out, error);
}

/* ---- nodes ---- */

static int packbuf_i_same_pairs(const char *a, const char *b) {
  int32_t count, size;
  size_t at = 4;
  if (!a || !b) return a == b;
  memcpy(&count, a, 4);
  if (memcmp(a, b, 4) != 0) return 0;
  for (; count > 0; count--) {
    for (int part = 0; part < 2; part++) {
      memcpy(&size, a + at, 4);
      if (memcmp(a + at, b + at, 4) != 0 || memcmp(a + at + 4, b + at + 4, (size_t)size) != 0) return 0;
      at += 4 + (size_t)size;
    }
  }
  return 1;
}

/* Whether two types of ours are one, whatever their own names. */
static int packbuf_i_same_arrow_type(const struct ArrowSchema *a, const struct ArrowSchema *b) {
  if (strcmp(a->format, b->format) != 0 || a->n_children != b->n_children ||
      !packbuf_i_same_pairs(a->metadata, b->metadata))
    return 0;
  for (int64_t i = 0; i < a->n_children; i++)
    if (strcmp(a->children[i]->name, b->children[i]->name) != 0 ||
        !packbuf_i_same_arrow_type(a->children[i], b->children[i]))
      return 0;
  return 1;
}

/* What may be null in one of two types that are one, may be so in both. */
static void packbuf_i_join_flags(struct ArrowSchema *into, const struct ArrowSchema *from) {
  into->flags |= from->flags;
  for (int64_t i = 0; i < into->n_children; i++) packbuf_i_join_flags(into->children[i], from->children[i]);
}

/* Whether all items have one type; *first is one that has it, or -1. Those that are always null have any. */
static int packbuf_i_one_type(struct ArrowSchema *items, uint32_t count, int64_t *first) {
  *first = -1;
  for (uint32_t i = 0; i < count; i++) {
    if (strcmp(items[i].format, "n") == 0) continue;
    if (*first >= 0 && !packbuf_i_same_arrow_type(&items[*first], &items[i])) return 0;
    if (*first < 0) *first = (int64_t)i;
    else packbuf_i_join_flags(&items[*first], &items[i]);
  }
  if (*first < 0 && count) *first = 0;
  return 1;
}

/* The types of a list's chosen items, which are then put into *out: as the one type of its items, or as the fields of a
 * struct, named by their place, with the length behind them. */
static packbuf_status packbuf_i_place_items(const packbuf_export *what, const packbuf_i_draft *list,
                                            struct ArrowSchema *items, const uint32_t *places, uint32_t count,
                                            struct ArrowSchema *out, packbuf_error *error) {
  const packbuf_i_draft length = packbuf_i_draft_of(packbuf_i_text_of("length"), "l", 0);
  packbuf_i_draft nothing = packbuf_i_draft_of(packbuf_i_text_of("item"), "n", 0), draft = *list;
  int64_t first;
  const int one = packbuf_i_one_type(items, count, &first);
  packbuf_status status;
  draft.format = one ? "+L" : "+s";
  draft.children = one ? 1 : count + 1;
  if (!one) packbuf_i_say(&draft, PACKBUF_I_CODEC_KEY, packbuf_i_text_of(PACKBUF_I_PLACES));
  nothing.flags = ARROW_FLAG_NULLABLE;
  status = packbuf_i_make_schema(what, &draft, out, error);
  if (status != PACKBUF_OK) return status;
  if (one && first < 0) return packbuf_i_make_schema(what, &nothing, out->children[0], error);
  if (one) {
    *out->children[0] = items[first];
    items[first].release = NULL;
    out->children[0]->flags |= ARROW_FLAG_NULLABLE;
    return PACKBUF_OK;
  }
  for (uint32_t i = 0; i < count; i++) {
    char name[24];
    struct ArrowSchema *child = out->children[i];
    *child = items[i];
    items[i].release = NULL;
    packbuf_i_write_number(name, "", places[i]);
    child->name = packbuf_i_own_text(&((packbuf_i_export_owned *)child->private_data)->arena, packbuf_i_text_of(name));
    if (!child->name) return packbuf_i_no_memory(error);
  }
  return packbuf_i_make_schema(what, &length, out->children[count], error);
}

/* A list node. The type of each item is made once: this is done at every level. */
static packbuf_status packbuf_i_list_schema(const packbuf_export *what, const packbuf_node *node,
                                            const packbuf_i_draft *draft, struct ArrowSchema *out,
                                            packbuf_error *error) {
  packbuf_arena arena;
  struct ArrowSchema *items;
  uint32_t *places, count = 0, made = 0;
  packbuf_i_below below = packbuf_i_chosen_below(what->selection, node);
  packbuf_node child;
  packbuf_status status = packbuf_i_count_below(below, 0, &count, error);
  if (status != PACKBUF_OK) return status;
  packbuf_arena_init(&arena, what->allocator);
  items = (struct ArrowSchema *)packbuf_i_array(&arena, count, sizeof *items);
  places = (uint32_t *)packbuf_i_array(&arena, count, sizeof *places);
  if (!items || !places) status = packbuf_i_no_memory(error);
  for (uint32_t place = 0; status == PACKBUF_OK; place++) {
    status = packbuf_i_next_below(&below, 1, &child, error);
    if (status != PACKBUF_OK || !what->selection->flags[child.index]) continue;
    memset(&items[made], 0, sizeof *items);
    places[made] = place;
    status = packbuf_i_node_schema(what, &child, packbuf_i_text_of("item"), &items[made++], error);
  }
  if (status == PACKBUF_NOT_FOUND) status = packbuf_i_place_items(what, draft, items, places, count, out, error);
  for (uint32_t i = 0; i < made; i++)
    if (items[i].release) items[i].release(&items[i]);
  packbuf_arena_free(&arena);
  return status;
}

/* Adds the path of a node to an error that says none. */
static packbuf_status packbuf_i_at_node(const packbuf_export *what, uint32_t node, packbuf_status status,
                                        packbuf_error *error) {
  if (status != PACKBUF_OK && error && !error->path[0])
    packbuf_node_path(what->selection->view, node, error->path, sizeof error->path);
  return status;
}

static packbuf_status packbuf_i_node_schema(const packbuf_export *what, const packbuf_node *node, packbuf_text name,
                                            struct ArrowSchema *out, packbuf_error *error) {
  packbuf_i_draft draft = packbuf_i_draft_of(name, "+s", 0);
  packbuf_buffer mask;
  packbuf_status status = packbuf_get_buffer(what->selection->view, node, PACKBUF_ROLE_VALIDITY, 0, &mask, error);
  if (status != PACKBUF_OK && status != PACKBUF_NOT_FOUND) return packbuf_i_at_node(what, node->index, status, error);
  if (status == PACKBUF_OK || (node->kind == PACKBUF_LEAF && node->codec == PACKBUF_CODEC_NULL))
    draft.flags = ARROW_FLAG_NULLABLE;
  draft.whole = 1;
  draft.node = node->index;
  if (node->kind == PACKBUF_LEAF) {
    status = packbuf_i_leaf_schema(what, node, &draft, out, error);
  } else if (node->kind == PACKBUF_NODE_LIST) {
    status = packbuf_i_list_schema(what, node, &draft, out, error);
  } else {
    status = packbuf_i_count_below(packbuf_i_chosen_below(what->selection, node), 0, &draft.children, error);
    if (status == PACKBUF_OK) status = packbuf_i_make_schema(what, &draft, out, error);
    if (status == PACKBUF_OK) status = packbuf_i_children_schema(what, node, out, 0, error);
  }
  return packbuf_i_at_node(what, node->index, status, error);
}

PACKBUF_API packbuf_status packbuf_arrow_schema(const packbuf_export *what, struct ArrowSchema *out,
                                                packbuf_error *error) {
  packbuf_i_draft draft = packbuf_i_draft_of(packbuf_i_text_of(""), "+s", 0);
  packbuf_node node;
  packbuf_status status = packbuf_i_check_export(what, out, error);
  if (status != PACKBUF_OK) return status;
  memset(out, 0, sizeof *out);
  draft.whole = 1;
  draft.node = PACKBUF_NO_NODE;
  if (what->node != PACKBUF_NO_NODE) {
    status = packbuf_get_node(what->selection->view, what->node, &node, error);
    if (status == PACKBUF_OK) status = packbuf_i_node_schema(what, &node, node.name, out, error);
  } else {
    status = packbuf_i_count_below(packbuf_i_chosen_below(what->selection, NULL), 0, &draft.children, error);
    if (status == PACKBUF_OK) status = packbuf_i_make_schema(what, &draft, out, error);
    if (status == PACKBUF_OK) status = packbuf_i_children_schema(what, NULL, out, 0, error);
  }
  if (status != PACKBUF_OK && out->release) out->release(out);
  return status;
}
