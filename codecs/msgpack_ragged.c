/* codecs/msgpack_ragged.c: cells as MessagePack (section 12 of the spec): what can be written, the writer, the parser,
 * the checker. Parser and checker are one body, as in json_ragged. What is read points into the data: text, bytes, and
 * the elements of tensors.
 * May use: base, arena, utf8, decimal, values, keys. Must not know: columns, packed buffers, other codecs. */

#define PACKBUF_I_EXT_BIGINT 1
#define PACKBUF_I_EXT_TENSOR 2
#define PACKBUF_I_EXT_MEDIA 3
#define PACKBUF_I_EXT_OPAQUE 4
#define PACKBUF_I_KIND_EXT 0xFF /* packbuf_i_msgpack_head.value.kind of an extension */

/* ---- one object's head: its type, its number, or the length of what follows ---- */

typedef struct packbuf_i_msgpack_head {
  packbuf_value value; /* kind; and the number, when it is one */
  uint64_t next;       /* where what follows begins */
  uint64_t length;     /* bytes of text, bytes, extension; items of a list; entries of a dict; else 0 */
  uint8_t ext;
} packbuf_i_msgpack_head;

/* A big-endian number of 0, 1, 2, 4 or 8 bytes. */
static uint64_t packbuf_i_load_big(const uint8_t *from, unsigned size) {
  switch (size) {
    case 0: return 0;
    case 1: return from[0];
    case 2: return (uint64_t)from[0] << 8 | from[1];
    case 4: return (uint64_t)from[0] << 24 | (uint64_t)from[1] << 16 | (uint64_t)from[2] << 8 | from[3];
    default: return packbuf_i_load_big(from, 4) << 32 | packbuf_i_load_big(from + 4, 4);
  }
}

/* float32 bits to the bits of the float64 of the same value, NaN payloads kept: a conversion by the processor would
 * quiet them. */
static uint64_t packbuf_i_widen(uint32_t bits) {
  uint64_t wide = (uint64_t)(bits >> 31) << 63 | 0x7FF0000000000000u | (uint64_t)(bits & 0x7FFFFF) << 29;
  float narrow;
  double same;
  if ((bits & 0x7F800000) == 0x7F800000) return wide;
  memcpy(&narrow, &bits, 4);
  same = (double)narrow;
  return packbuf_i_double_bits(&same);
}

static void packbuf_i_msgpack_int(packbuf_value *value, int64_t i) {
  value->kind = PACKBUF_INT;
  value->as.i = i;
}

/* The value of a number's or constant's type byte and the bits that follow it. */
static void packbuf_i_msgpack_number(packbuf_value *value, uint8_t type, uint64_t n) {
  switch (type) {
    case 0xC0: value->kind = PACKBUF_NULL; return;
    case 0xC2:
    case 0xC3:
      value->kind = PACKBUF_BOOL;
      value->as.boolean = type & 1;
      return;
    case 0xCA:
    case 0xCB:
      value->kind = PACKBUF_FLOAT;
      if (type == 0xCA) n = packbuf_i_widen((uint32_t)n);
      memcpy(&value->as.f, &n, 8);
      return;
    case 0xD0: packbuf_i_msgpack_int(value, (int64_t)(n ^ 0x80) - 0x80); return;
    case 0xD1: packbuf_i_msgpack_int(value, (int64_t)(n ^ 0x8000) - 0x8000); return;
    case 0xD2: packbuf_i_msgpack_int(value, (int64_t)(n ^ 0x80000000u) - 0x80000000); return;
    default: break; /* unsigned, and int 64 */
  }
  if (n <= (uint64_t)INT64_MAX) {
    packbuf_i_msgpack_int(value, (int64_t)n);
  } else if (type == 0xD3) {
    packbuf_i_msgpack_int(value, -(int64_t)~n - 1);
  } else {
    value->kind = PACKBUF_UINT;
    value->as.u = n;
  }
}

/* Reads the head at `at` (below size). 1; 0: the data end inside it; -1: no such type. */
static int packbuf_i_msgpack_read_head(const uint8_t *data, uint64_t size, uint64_t at, packbuf_i_msgpack_head *head) {
  /* for types 0xC0 to 0xDF: bytes of the number or length that follows, and the kind (0: a number or constant; FE:
   * none) */
  static const uint8_t bytes[32] = {0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8,
                                    1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4};
  static const uint8_t kinds[32] = {0, 0xFE, 0, 0, 8,    8,    8,    0xFF, 0xFF, 0xFF, 0, 0, 0,  0,  0,  0,
                                    0, 0,    0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 7,    7, 7, 12, 12, 13, 13};
  uint8_t type = data[at], kind = 0;
  uint64_t n = 0;
  PACKBUF_I_FETCHED(type);
  head->next = at + 1;
  head->length = 0;
  head->ext = 0;
  if (type < 0x80 || type >= 0xE0) {
    packbuf_i_msgpack_int(&head->value, type < 0x80 ? type : (int64_t)type - 256);
    return 1;
  }
  if (type < 0xC0) { /* small dicts, lists, strings */
    kind = type < 0x90 ? (uint8_t)PACKBUF_DICT : type < 0xA0 ? (uint8_t)PACKBUF_LIST : (uint8_t)PACKBUF_STRING;
    n = type & (type < 0xA0 ? 0x0Fu : 0x1Fu);
  } else {
    kind = kinds[type - 0xC0];
    if (kind == 0xFE) return -1;
    if (bytes[type - 0xC0] > size - head->next) return 0;
    n = packbuf_i_load_big(data + head->next, bytes[type - 0xC0]);
    PACKBUF_I_FETCHED(n);
    head->next += bytes[type - 0xC0];
    if (type >= 0xD4 && type <= 0xD8) n = (uint64_t)1 << (type - 0xD4);
  }
  if (kind == 0) {
    packbuf_i_msgpack_number(&head->value, type, n);
    return 1;
  }
  head->value.kind = kind;
  head->length = n;
  if (kind != PACKBUF_I_KIND_EXT) return 1;
  if (head->next == size) return 0;
  type = data[head->next++];
  PACKBUF_I_FETCHED(type);
  head->ext = type;
  return 1;
}

/* ---- the parser's state, and the keys of its dicts ---- */

typedef struct packbuf_i_msgpack {
  const uint8_t *data;
  uint64_t size, at;
  packbuf_arena *arena;
  int build;     /* 1: keep values; 0: check only */
  int hopeless;  /* more items are owed than bytes are left: nothing is allocated for them, and the checker finds out
                    what is wrong first */
  uint64_t owed; /* items of the open lists and dicts that have not begun: at least a byte each, so allocations are
                    bounded by the data */
  packbuf_status status;
  const char *message;
  uint64_t fail_at;
  packbuf_i_keys keys;
} packbuf_i_msgpack;

static int packbuf_i_msgpack_stop(packbuf_i_msgpack *mp, packbuf_status status, const char *message, uint64_t at) {
  mp->status = status;
  mp->message = message;
  mp->fail_at = at;
  return 0;
}

static int packbuf_i_msgpack_bad(packbuf_i_msgpack *mp, uint64_t at, const char *message) {
  return packbuf_i_msgpack_stop(mp, PACKBUF_BAD_MSGPACK, message, at);
}

/* `size` is where what holds the object ends: the data, or an extension's body. */
static int packbuf_i_msgpack_short(packbuf_i_msgpack *mp, uint64_t size) {
  return packbuf_i_msgpack_bad(mp, size, size == mp->size ? "the data end too early" : "an extension ends too early");
}

static void *packbuf_i_msgpack_alloc(packbuf_i_msgpack *mp, uint64_t size) {
  void *memory = size <= SIZE_MAX ? packbuf_arena_alloc(mp->arena, (size_t)size, 8) : NULL;
  if (!memory) packbuf_i_msgpack_stop(mp, PACKBUF_OUT_OF_MEMORY, packbuf_i_no_memory_text, PACKBUF_NOWHERE);
  return memory;
}

/* The head at `at` of what ends at `size`; the text, bytes or body that follows is there too. */
static int packbuf_i_msgpack_take(packbuf_i_msgpack *mp, uint64_t at, uint64_t size, packbuf_i_msgpack_head *head) {
  int read = at < size ? packbuf_i_msgpack_read_head(mp->data, size, at, head) : 0;
  if (read < 0) return packbuf_i_msgpack_bad(mp, at, "not a MessagePack type");
  if (read == 0) return packbuf_i_msgpack_short(mp, size);
  if (head->value.kind == PACKBUF_LIST || head->value.kind == PACKBUF_DICT)
    return 1; /* items are looked at one by one */
  return head->length <= size - head->next || packbuf_i_msgpack_short(mp, size);
}

/* The value of a head that is a number, text or bytes; refuses text that is not UTF-8. */
static int packbuf_i_msgpack_plain(packbuf_i_msgpack *mp, const packbuf_i_msgpack_head *head, packbuf_value *out) {
  *out = head->value;
  if (head->value.kind != PACKBUF_STRING && head->value.kind != PACKBUF_BYTES) return 1;
  out->as.text.data = (const char *)mp->data + head->next;
  out->as.text.size = (size_t)head->length;
  if (head->value.kind == PACKBUF_STRING) {
    size_t valid = packbuf_i_utf8_valid(mp->data + head->next, (size_t)head->length);
    if (valid != head->length)
      return packbuf_i_msgpack_stop(mp, PACKBUF_BAD_UTF8, "a string is not UTF-8", head->next + valid);
  }
  return 1;
}

/* A key whose head was read within its data, in either pass; 0 when it cannot be a key. */
static int packbuf_i_msgpack_key_of(const uint8_t *data, const packbuf_i_msgpack_head *head, packbuf_value *key) {
  *key = head->value;
  if (head->value.kind == PACKBUF_LIST || head->value.kind == PACKBUF_DICT) return 0;
  if (head->value.kind == PACKBUF_I_KIND_EXT) {
    if (head->ext != PACKBUF_I_EXT_BIGINT) return 0;
    key->kind = PACKBUF_BIGINT;
  }
  if (key->kind == PACKBUF_STRING || key->kind == PACKBUF_BYTES || key->kind == PACKBUF_BIGINT) {
    key->as.text.data = (const char *)data + head->next;
    key->as.text.size = (size_t)head->length;
  }
  return 1;
}

/* The key at `at`, which was read before; should it have changed meanwhile to what is no key or ends too late, an empty
 * one. */
static packbuf_value packbuf_i_msgpack_key_again(const packbuf_i_msgpack *mp, uint64_t at) {
  packbuf_i_msgpack_head head;
  packbuf_value key;
  memset(&head, 0, sizeof head);
  if (packbuf_i_msgpack_read_head(mp->data, mp->size, at, &head) == 1 &&
      packbuf_i_msgpack_key_of(mp->data, &head, &key) && head.length <= mp->size - head.next)
    return key;
  return packbuf_string_n(NULL, 0);
}

static int packbuf_i_msgpack_key_order(const void *subject, uint64_t a, uint64_t b) {
  const packbuf_i_msgpack *mp = (const packbuf_i_msgpack *)subject;
  const packbuf_value x = packbuf_i_msgpack_key_again(mp, a), y = packbuf_i_msgpack_key_again(mp, b);
  return packbuf_i_key_order(&x, &y);
}

/* Steps over the object at *at; 0 when it does not end before `end`. */
static int packbuf_i_msgpack_skip(const packbuf_i_msgpack *mp, uint64_t *at, uint64_t end,
                                  packbuf_i_msgpack_head *head) {
  uint64_t objects = 1, from = *at;
  packbuf_i_msgpack_head next;
  for (; objects; objects--) {
    packbuf_i_msgpack_head *into = *at == from ? head : &next;
    if (*at >= end || packbuf_i_msgpack_read_head(mp->data, mp->size, *at, into) != 1) return 0;
    *at = into->next;
    if (into->value.kind == PACKBUF_LIST) objects += into->length;
    else if (into->value.kind == PACKBUF_DICT) objects += 2 * into->length;
    else if (into->length > mp->size - into->next) return 0;
    else *at += into->length;
  }
  return *at <= end;
}

/* cursor->at: the next key; cursor->left: the keys to go. */
static int packbuf_i_msgpack_key_next(const void *subject, packbuf_i_key_cursor *cursor, uint64_t *word) {
  const packbuf_i_msgpack *mp = (const packbuf_i_msgpack *)subject;
  packbuf_i_msgpack_head head;
  packbuf_value key;
  uint64_t at = cursor->at;
  if (!cursor->left || !packbuf_i_msgpack_skip(mp, &cursor->at, cursor->end, &head) ||
      !packbuf_i_msgpack_key_of(mp->data, &head, &key))
    return 0;
  *word = packbuf_i_key_word(packbuf_i_key_hash(&key), at);
  cursor->left--;
  if (!packbuf_i_msgpack_skip(mp, &cursor->at, cursor->end, &head))
    cursor->left = 0; /* this key counts, but no other will come */
  return 1;
}

static const packbuf_i_key_source packbuf_i_msgpack_key_source = {packbuf_i_msgpack_key_order,
                                                                  packbuf_i_msgpack_key_next};

/* ---- extensions: [at, end) is the body ---- */

static int packbuf_i_msgpack_bigint(packbuf_i_msgpack *mp, uint64_t at, uint64_t end, packbuf_value *out) {
  const char *text = (const char *)mp->data + at;
  if (!packbuf_i_is_bigint(text, (size_t)(end - at)))
    return packbuf_i_msgpack_bad(mp, at, "not a decimal number beyond 64 bits");
  *out = packbuf_i_make_text(PACKBUF_BIGINT, text, (size_t)(end - at));
  return 1;
}

static int packbuf_i_msgpack_keep_tensor(packbuf_i_msgpack *mp, const packbuf_tensor *tensor, const uint64_t *shape,
                                         uint64_t size, packbuf_value *out) {
  packbuf_tensor *kept = (packbuf_tensor *)packbuf_i_msgpack_alloc(mp, sizeof *kept + 8u * tensor->rank);
  if (!kept) return 0;
  *kept = *tensor;
  kept->shape = (uint64_t *)(void *)(kept + 1);
  if (tensor->rank) memcpy(kept + 1, shape, 8u * tensor->rank);
  if (packbuf_i_big_endian() && packbuf_i_swap_unit(tensor->dtype) > 1) {
    uint8_t *swapped = (uint8_t *)packbuf_i_msgpack_alloc(mp, size);
    if (!swapped) return 0;
    if (size) memcpy(swapped, tensor->data, (size_t)size);
    packbuf_i_swap(swapped, size, packbuf_i_swap_unit(tensor->dtype));
    kept->data = swapped;
  }
  *out = packbuf_tensor_value(kept);
  return 1;
}

static int packbuf_i_msgpack_tensor(packbuf_i_msgpack *mp, uint64_t at, uint64_t end, packbuf_value *out) {
  packbuf_tensor tensor;
  uint64_t shape[PACKBUF_MAX_RANK], count, size, elements;
  const uint8_t *body = mp->data + at;
  uint8_t head[4];
  if (end - at < 4) return packbuf_i_msgpack_short(mp, end);
  memcpy(head, body, 4);
  PACKBUF_I_FETCHED_STRUCT(head);
  memset(&tensor, 0, sizeof tensor);
  tensor.form = head[0];
  tensor.dtype = packbuf_dtype_of((packbuf_dtype_code)head[1], head[2]);
  tensor.rank = head[3];
  if (tensor.form < PACKBUF_FORM_ARRAY || tensor.form > PACKBUF_FORM_SCALAR)
    return packbuf_i_msgpack_bad(mp, at, "a tensor of no such form");
  if (!packbuf_i_dtype_known(tensor.dtype)) return packbuf_i_msgpack_bad(mp, at + 1, "a tensor of no such dtype");
  if (tensor.rank > (tensor.form == PACKBUF_FORM_SCALAR ? 0 : PACKBUF_MAX_RANK))
    return packbuf_i_msgpack_bad(mp, at + 3, "a tensor of too many dimensions");
  if ((end - at - 4) / 8 < tensor.rank) return packbuf_i_msgpack_short(mp, end);
  for (unsigned d = 0; d < tensor.rank; d++) {
    shape[d] = packbuf_i_load64(body + 4 + 8 * d);
    PACKBUF_I_FETCHED(shape[d]);
  }
  if (!packbuf_i_shape_count(shape, tensor.rank, packbuf_i_dtype_bytes(tensor.dtype), &count))
    return packbuf_i_msgpack_bad(mp, at + 4, "a tensor is too large");
  size = count * packbuf_i_dtype_bytes(tensor.dtype);
  elements = at + 4 + 8u * tensor.rank;
  if (size > end - elements) return packbuf_i_msgpack_short(mp, end);
  if (size < end - elements) return packbuf_i_msgpack_bad(mp, elements + size, "bytes after a tensor's elements");
  tensor.data = mp->data + elements;
  if (tensor.dtype.code == PACKBUF_DTYPE_BOOL) {
    uint64_t bools = packbuf_i_first_not_bool(mp->data + elements, size);
    if (bools < size) return packbuf_i_msgpack_bad(mp, elements + bools, "a bool byte is neither 0 nor 1");
  }
  return !mp->build || packbuf_i_msgpack_keep_tensor(mp, &tensor, shape, size, out);
}

static int packbuf_i_msgpack_attribute(packbuf_i_msgpack *mp, unsigned attribute, uint64_t at, uint64_t end,
                                       packbuf_media *media, uint64_t *next) {
  packbuf_i_msgpack_head head;
  packbuf_value value;
  if (!packbuf_i_msgpack_take(mp, at, end, &head) || !packbuf_i_msgpack_plain(mp, &head, &value)) return 0;
  *next = head.next + head.length;
  if (attribute == PACKBUF_I_MIME || attribute == PACKBUF_I_MODE) {
    if (value.kind != PACKBUF_STRING) return packbuf_i_msgpack_bad(mp, at, "an attribute is no string");
  } else if (attribute == PACKBUF_I_RATE) {
    if (value.kind != PACKBUF_FLOAT) return packbuf_i_msgpack_bad(mp, at, "an attribute is no float");
  } else if (value.kind != PACKBUF_INT || value.as.i < 0) {
    return packbuf_i_msgpack_bad(mp, at, "an attribute is no integer from 0 to 2^63 - 1");
  }
  packbuf_i_set_attribute(media, attribute, &value);
  return 1;
}

static int packbuf_i_msgpack_media(packbuf_i_msgpack *mp, uint64_t at, uint64_t end, packbuf_value *out) {
  packbuf_media media = packbuf_media_of(NULL, 0, NULL), *kept;
  packbuf_i_msgpack_head map, key;
  unsigned least = 0; /* attributes stand in their order */
  if (!packbuf_i_msgpack_take(mp, at, end, &map)) return 0;
  if (map.value.kind != PACKBUF_DICT) return packbuf_i_msgpack_bad(mp, at, "media without a map of attributes");
  at = map.next;
  for (uint64_t i = 0; i < map.length; i++) {
    unsigned attribute;
    if (!packbuf_i_msgpack_take(mp, at, end, &key)) return 0;
    if (key.value.kind != PACKBUF_STRING) return packbuf_i_msgpack_bad(mp, at, "an attribute's name is no string");
    attribute = packbuf_i_attribute_named(mp->data + key.next, (size_t)key.length);
    if (attribute < least || attribute == PACKBUF_I_ATTRIBUTES)
      return packbuf_i_msgpack_bad(mp, at, "no such attribute, or out of order");
    if (!packbuf_i_msgpack_attribute(mp, attribute, key.next + key.length, end, &media, &at)) return 0;
    least = attribute + 1;
  }
  if (!mp->build) return 1;
  media.data = mp->data + at;
  media.size = (size_t)(end - at);
  kept = (packbuf_media *)packbuf_i_msgpack_alloc(mp, sizeof *kept);
  if (!kept) return 0;
  *kept = media;
  *out = packbuf_media_value(kept);
  return 1;
}

static int packbuf_i_msgpack_opaque(packbuf_i_msgpack *mp, uint64_t at, uint64_t end, packbuf_value *out) {
  packbuf_i_msgpack_head head;
  packbuf_opaque *opaque;
  packbuf_value name;
  if (!packbuf_i_msgpack_take(mp, at, end, &head)) return 0;
  if (head.value.kind != PACKBUF_STRING)
    return packbuf_i_msgpack_bad(mp, at, "an opaque value without a serializer's name");
  if (!packbuf_i_msgpack_plain(mp, &head, &name)) return 0;
  if (!mp->build) return 1;
  opaque = (packbuf_opaque *)packbuf_i_msgpack_alloc(mp, sizeof *opaque);
  if (!opaque) return 0;
  opaque->serializer = name.as.text.data;
  opaque->serializer_size = name.as.text.size;
  opaque->data = mp->data + head.next + head.length;
  opaque->size = (size_t)(end - head.next - head.length);
  *out = packbuf_opaque_value(opaque);
  return 1;
}

static int packbuf_i_msgpack_extension(packbuf_i_msgpack *mp, const packbuf_i_msgpack_head *head, packbuf_value *out) {
  uint64_t end = head->next + head->length;
  switch (head->ext) {
    case PACKBUF_I_EXT_BIGINT: return packbuf_i_msgpack_bigint(mp, head->next, end, out);
    case PACKBUF_I_EXT_TENSOR: return packbuf_i_msgpack_tensor(mp, head->next, end, out);
    case PACKBUF_I_EXT_MEDIA: return packbuf_i_msgpack_media(mp, head->next, end, out);
    case PACKBUF_I_EXT_OPAQUE: return packbuf_i_msgpack_opaque(mp, head->next, end, out);
    default: return packbuf_i_msgpack_bad(mp, head->next - 1, "no such extension type");
  }
}

/* ---- the parser: each function reads the object at mp->at, moves it, and fills *out ---- */

static int packbuf_i_msgpack_value(packbuf_i_msgpack *mp, unsigned depth_left, packbuf_value *out);

/* Room for the items of a list or the keys and values of a dict. */
static int packbuf_i_msgpack_room(packbuf_i_msgpack *mp, uint64_t items, packbuf_value **room) {
  *room = NULL;
  mp->owed += items;
  if (!mp->build || !items) return 1;
  if (mp->owed > mp->size - mp->at) {
    mp->hopeless = 1;
    return packbuf_i_msgpack_short(mp, mp->size);
  }
  *room = (packbuf_value *)packbuf_i_msgpack_alloc(mp, items * sizeof **room); /* fewer items than bytes */
  return *room != NULL;
}

static int packbuf_i_msgpack_list(packbuf_i_msgpack *mp, unsigned depth_left, uint64_t count, packbuf_value *out) {
  packbuf_value *items;
  if (!packbuf_i_msgpack_room(mp, count, &items)) return 0;
  for (uint64_t i = 0; i < count; i++) {
    mp->owed--;
    if (!packbuf_i_msgpack_value(mp, depth_left, items ? &items[i] : out)) return 0;
  }
  *out = packbuf_list(items, (size_t)count);
  return 1;
}

static int packbuf_i_msgpack_key(packbuf_i_msgpack *mp, packbuf_value *key) {
  packbuf_i_msgpack_head head;
  uint64_t at = mp->at;
  int added;
  if (!packbuf_i_msgpack_take(mp, at, mp->size, &head)) return 0;
  if (!packbuf_i_msgpack_key_of(mp->data, &head, key)) return packbuf_i_msgpack_bad(mp, at, "not a key");
  if (key->kind == PACKBUF_BIGINT) {
    if (!packbuf_i_msgpack_bigint(mp, head.next, head.next + head.length, key))
      return packbuf_i_msgpack_bad(mp, at, mp->message);
  } else if (!packbuf_i_msgpack_plain(mp, &head, key)) {
    return 0;
  }
  mp->at = head.next + head.length;
  added = packbuf_i_keys_add(&mp->keys, packbuf_i_key_hash(key), at);
  if (added < 0) return packbuf_i_msgpack_stop(mp, PACKBUF_OUT_OF_MEMORY, packbuf_i_no_memory_text, PACKBUF_NOWHERE);
  return added || packbuf_i_msgpack_bad(mp, at, "a map has two equal keys");
}

static int packbuf_i_msgpack_entries(packbuf_i_msgpack *mp, unsigned depth_left, uint64_t count, packbuf_value *out) {
  packbuf_value *pairs;
  if (!packbuf_i_msgpack_room(mp, 2 * count, &pairs)) return 0;
  for (uint64_t i = 0; i < count; i++) {
    mp->owed--;
    if (!packbuf_i_msgpack_key(mp, pairs ? &pairs[2 * i] : out)) return 0;
    mp->owed--;
    if (!packbuf_i_msgpack_value(mp, depth_left, pairs ? &pairs[2 * i + 1] : out)) return 0;
  }
  *out = packbuf_dict((const packbuf_entry *)(const void *)pairs, (size_t)count);
  return 1;
}

static int packbuf_i_msgpack_dict(packbuf_i_msgpack *mp, unsigned depth_left, uint64_t count, packbuf_value *out) {
  packbuf_i_key_frame frame;
  uint64_t duplicate = PACKBUF_NOWHERE;
  int done;
  packbuf_i_keys_open(&mp->keys, &frame, mp->at, count);
  done = packbuf_i_msgpack_entries(mp, depth_left, count, out);
  if (!done && (mp->hopeless ||
                (mp->status != PACKBUF_BAD_MSGPACK && mp->status != PACKBUF_BAD_UTF8 && mp->status != PACKBUF_DEPTH)))
    return 0;
  /* equal keys ahead of another error are the first error, as in JSON */
  if (!done) duplicate = mp->fail_at;
  if (!packbuf_i_keys_close(&mp->keys, done ? mp->at : duplicate, &duplicate) && done)
    return packbuf_i_msgpack_stop(mp, PACKBUF_LIMIT, "a map has too many keys to be checked without memory",
                                  frame.start.at);
  if (duplicate != (done ? PACKBUF_NOWHERE : mp->fail_at))
    return packbuf_i_msgpack_bad(mp, duplicate, "a map has two equal keys");
  return done;
}

static int packbuf_i_msgpack_value(packbuf_i_msgpack *mp, unsigned depth_left, packbuf_value *out) {
  packbuf_i_msgpack_head head;
  uint64_t at = mp->at;
  if (!packbuf_i_msgpack_take(mp, at, mp->size, &head)) return 0;
  mp->at = head.next;
  if (head.value.kind == PACKBUF_LIST || head.value.kind == PACKBUF_DICT) {
    if (!depth_left) return packbuf_i_msgpack_stop(mp, PACKBUF_DEPTH, "nested too deeply", at);
    return head.value.kind == PACKBUF_LIST ? packbuf_i_msgpack_list(mp, depth_left - 1, head.length, out)
                                           : packbuf_i_msgpack_dict(mp, depth_left - 1, head.length, out);
  }
  mp->at += head.length;
  if (head.value.kind == PACKBUF_I_KIND_EXT) {
    if (packbuf_i_msgpack_extension(mp, &head, out)) return 1;
    if (mp->status != PACKBUF_OUT_OF_MEMORY) mp->fail_at = at; /* an extension is wrong as a whole */
    return 0;
  }
  return packbuf_i_msgpack_plain(mp, &head, out);
}

static packbuf_status packbuf_i_msgpack_read(const uint8_t *data, uint64_t size, unsigned max_depth, int cell,
                                             packbuf_arena *arena, packbuf_value *value, packbuf_error *error) {
  packbuf_i_msgpack mp;
  packbuf_value result;
  mp.data = data;
  mp.size = size;
  mp.at = 0;
  mp.arena = arena;
  mp.build = value != NULL;
  mp.hopeless = 0;
  mp.owed = 0;
  mp.status = PACKBUF_OK;
  packbuf_i_keys_init(&mp.keys, &packbuf_i_msgpack_key_source, &mp, arena, size * PACKBUF_I_KEYS_PASSES);
  if (size > PACKBUF_I_KEY_AT) {
    packbuf_i_msgpack_stop(&mp, PACKBUF_LIMIT, "the data are larger than 1 TiB", 0);
  } else if (packbuf_i_msgpack_value(&mp, packbuf_i_depth(max_depth), &result)) {
    if (mp.at < size) packbuf_i_msgpack_bad(&mp, mp.at, "bytes after the object");
    else if (cell && data[0] == 0xC0) packbuf_i_msgpack_bad(&mp, 0, "a cell is nil: that is a mask's matter");
  }
  packbuf_i_keys_free(&mp.keys);
  if (mp.status) return packbuf_i_fail(error, mp.status, mp.message, mp.fail_at, PACKBUF_NOWHERE);
  if (value) *value = result;
  return PACKBUF_OK;
}

/* Whether data are one MessagePack object, without memory. cell 1: as a cell, so nil is refused. LIMIT: some 128 Ki
 * keys or more in one map. */
static packbuf_status packbuf_i_msgpack_check(const uint8_t *data, uint64_t size, unsigned max_depth, int cell,
                                              packbuf_error *error) {
  return packbuf_i_msgpack_read(data, size, max_depth, cell, NULL, NULL, error);
}

/* Data to a value in the arena. */
static packbuf_status packbuf_i_msgpack_decode(const uint8_t *data, uint64_t size, unsigned max_depth,
                                               packbuf_arena *arena, packbuf_value *value, packbuf_error *error) {
  const packbuf_status status = packbuf_i_msgpack_read(data, size, max_depth, 0, arena, value, error);
  packbuf_status first;
  if (status != PACKBUF_BAD_MSGPACK) return status;
  /* the checker, which needs no room for items, finds the byte where bad data go wrong first; data that a peer has
   * mended meanwhile stay refused: there is no value */
  first = packbuf_i_msgpack_read(data, size, max_depth, 0, arena, NULL, error);
  return first != PACKBUF_OK ? first : status;
}

/* ---- what can be written ---- */

static packbuf_status packbuf_i_msgpack_can_tensor(const packbuf_tensor *tensor, packbuf_error *error) {
  packbuf_i_pieces pieces;
  const uint8_t *piece;
  uint64_t count, element = packbuf_i_dtype_bytes(tensor->dtype);
  if (!packbuf_i_dtype_known(tensor->dtype)) return packbuf_i_unencodable(error, "a tensor of an unknown dtype");
  if (tensor->rank && !tensor->shape) return packbuf_i_unencodable(error, "a tensor has no shape");
  if (tensor->rank > (tensor->form == PACKBUF_FORM_SCALAR ? 0 : PACKBUF_MAX_RANK))
    return packbuf_i_unencodable(error, "a tensor has too many dimensions");
  if (tensor->form == PACKBUF_FORM_LIST || tensor->form > PACKBUF_FORM_SCALAR)
    return packbuf_i_unencodable(error, "a tensor of no such form");
  if (!packbuf_i_shape_count(tensor->shape, tensor->rank, element, &count) ||
      count * element > UINT32_MAX - 4 - 8u * tensor->rank)
    return packbuf_i_unencodable(error, "a tensor is too large");
  if (count && !tensor->data) return packbuf_i_unencodable(error, "a tensor has no data");
  if (tensor->device && !tensor->device->copy)
    return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_DEVICE, "a tensor lies in memory of a device without a copy hook",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (tensor->dtype.code != PACKBUF_DTYPE_BOOL || tensor->device) return PACKBUF_OK;
  packbuf_i_pieces_start(&pieces, tensor);
  while ((piece = packbuf_i_pieces_next(&pieces)) != NULL)
    if (packbuf_i_first_not_bool(piece, pieces.size) < pieces.size)
      return packbuf_i_fail(error, PACKBUF_BAD_BOOL, "a bool byte is neither 0 nor 1", PACKBUF_NOWHERE,
                            PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_msgpack_can_media(const packbuf_media *media, packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  if (media->size && !media->data) return packbuf_i_unencodable(error, "media have no data");
  if (media->height < -1 || media->width < -1 || media->channels < -1)
    return packbuf_i_unencodable(error, "height, width or channels of media is below 0");
  /* 128: more than the names, the numbers and the heads take */
  if (media->size > UINT32_MAX - 128 || (media->mime && media->mime_size > UINT32_MAX - 128 - media->size) ||
      (media->mode && media->mode_size > UINT32_MAX - 128 - media->size - (media->mime ? media->mime_size : 0)))
    return packbuf_i_unencodable(error, "media are too large");
  if (media->mime) status = packbuf_i_check_utf8(media->mime, media->mime_size, error);
  if (!status && media->mode) status = packbuf_i_check_utf8(media->mode, media->mode_size, error);
  return status;
}

/* Everything but lists and dicts. */
static packbuf_status packbuf_i_msgpack_can_leaf(const packbuf_value *value, packbuf_error *error) {
  if (packbuf_i_points_nowhere(value))
    return packbuf_i_unencodable(error, "a tensor, media or opaque value is not there");
  switch (value->kind) {
    case PACKBUF_NULL:
    case PACKBUF_BOOL:
    case PACKBUF_INT:
    case PACKBUF_UINT:
    case PACKBUF_FLOAT: return PACKBUF_OK;
    case PACKBUF_BIGINT:
      if (packbuf_i_is_bigint(value->as.text.data, value->as.text.size) && value->as.text.size <= UINT32_MAX)
        return PACKBUF_OK;
      return packbuf_i_unencodable(error, "an integer's text is not a decimal number beyond 64 bits");
    case PACKBUF_STRING:
    case PACKBUF_BYTES:
      if (value->as.text.size > UINT32_MAX) return packbuf_i_unencodable(error, "a string or bytes are too large");
      if (value->as.text.size && !value->as.text.data)
        return packbuf_i_unencodable(error, "a string or bytes have no data");
      return value->kind == PACKBUF_STRING ? packbuf_i_check_utf8(value->as.text.data, value->as.text.size, error)
                                           : PACKBUF_OK;
    case PACKBUF_TENSOR: return packbuf_i_msgpack_can_tensor(value->as.tensor, error);
    case PACKBUF_MEDIA: return packbuf_i_msgpack_can_media(value->as.media, error);
    case PACKBUF_OPAQUE:
      if (value->as.opaque->size && !value->as.opaque->data)
        return packbuf_i_unencodable(error, "an opaque value has no data");
      if (value->as.opaque->size > UINT32_MAX - 5 ||
          value->as.opaque->serializer_size > UINT32_MAX - 5 - value->as.opaque->size)
        return packbuf_i_unencodable(error, "an opaque value is too large");
      return packbuf_i_check_utf8(value->as.opaque->serializer, value->as.opaque->serializer_size, error);
    default: return packbuf_i_unencodable(error, "MessagePack has no such value");
  }
}

static packbuf_status packbuf_i_msgpack_can_below(const packbuf_value *value, unsigned depth_left, packbuf_i_keys *keys,
                                                  packbuf_error *error) {
  int list = value->kind == PACKBUF_LIST;
  size_t count = list ? value->as.list.count : value->as.dict.count;
  packbuf_status status = PACKBUF_OK;
  if (!list && value->kind != PACKBUF_DICT) return packbuf_i_msgpack_can_leaf(value, error);
  if (!depth_left) return packbuf_i_fail(error, PACKBUF_DEPTH, "nested too deeply", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (count > UINT32_MAX) return packbuf_i_unencodable(error, "a list or dict is too long");
  if (packbuf_i_no_items(value)) return packbuf_i_unencodable(error, "a list or dict has no items");
  for (size_t i = 0; i < count && !status; i++) {
    if (++keys->values >> 30)
      return packbuf_i_fail(error, PACKBUF_LIMIT, "2^30 values or more", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    if (!list) {
      const packbuf_value *key = &value->as.dict.entries[i].key;
      if (key->kind == PACKBUF_MISSING || key->kind > PACKBUF_BYTES) return packbuf_i_unencodable(error, "not a key");
      status = packbuf_i_msgpack_can_leaf(key, error);
    }
    if (!status)
      status = packbuf_i_msgpack_can_below(list ? &value->as.list.items[i] : &value->as.dict.entries[i].value,
                                           depth_left - 1, keys, error);
  }
  return !status && !list ? packbuf_i_keys_differ(keys, value, error) : status;
}

/* OK exactly when packbuf_i_msgpack_encode will succeed (but for a device's copy hook) and what it pushes is valid;
 * else UNENCODABLE, BAD_UTF8, BAD_BOOL, DEPTH or UNSUPPORTED_DEVICE. The arena as for packbuf_i_json_can. */
static packbuf_status packbuf_i_msgpack_can(const packbuf_value *value, unsigned depth_left, packbuf_arena *scratch,
                                            packbuf_error *error) {
  packbuf_i_keys keys;
  packbuf_status status;
  packbuf_i_keys_init(&keys, &packbuf_i_entry_source, NULL, scratch, UINT64_MAX);
  status = packbuf_i_msgpack_can_below(value, depth_left, &keys, error);
  packbuf_i_keys_free(&keys);
  return status;
}

/* ---- the writer: always the shortest form ---- */

/* A type byte and a big-endian number of 0, 1, 2, 4 or 8 bytes. */
static void packbuf_i_msgpack_put(packbuf_i_sink *sink, unsigned type, uint64_t number, unsigned size) {
  uint8_t bytes[9];
  bytes[0] = (uint8_t)type;
  for (unsigned i = 0; i < size; i++) bytes[1 + i] = (uint8_t)(number >> (8 * (size - 1 - i)));
  packbuf_i_push(sink, bytes, 1 + size);
}

static void packbuf_i_msgpack_put_uint(packbuf_i_sink *sink, uint64_t u) {
  if (u < 0x80) packbuf_i_msgpack_put(sink, (unsigned)u, 0, 0);
  else if (u <= 0xFF) packbuf_i_msgpack_put(sink, 0xCC, u, 1);
  else if (u <= 0xFFFF) packbuf_i_msgpack_put(sink, 0xCD, u, 2);
  else if (u <= 0xFFFFFFFFu) packbuf_i_msgpack_put(sink, 0xCE, u, 4);
  else packbuf_i_msgpack_put(sink, 0xCF, u, 8);
}

static void packbuf_i_msgpack_put_int(packbuf_i_sink *sink, int64_t i) {
  if (i >= 0) packbuf_i_msgpack_put_uint(sink, (uint64_t)i);
  else if (i >= -32) packbuf_i_msgpack_put(sink, (unsigned)(i + 256), 0, 0);
  else if (i >= -0x80) packbuf_i_msgpack_put(sink, 0xD0, (uint64_t)i, 1);
  else if (i >= -0x8000) packbuf_i_msgpack_put(sink, 0xD1, (uint64_t)i, 2);
  else if (i >= -2147483647 - 1) packbuf_i_msgpack_put(sink, 0xD2, (uint64_t)i, 4);
  else packbuf_i_msgpack_put(sink, 0xD3, (uint64_t)i, 8);
}

static void packbuf_i_msgpack_put_float(packbuf_i_sink *sink, const double *f) {
  packbuf_i_msgpack_put(sink, 0xCB, packbuf_i_double_bits(f), 8);
}

/* The head of a list (0x90, 0xDC) or dict (0x80, 0xDE). */
static void packbuf_i_msgpack_put_count(packbuf_i_sink *sink, unsigned small_type, unsigned type, size_t count) {
  if (count < 16) packbuf_i_msgpack_put(sink, small_type | (unsigned)count, 0, 0);
  else if (count <= 0xFFFF) packbuf_i_msgpack_put(sink, type, count, 2);
  else packbuf_i_msgpack_put(sink, type + 1, count, 4);
}

static void packbuf_i_msgpack_put_string(packbuf_i_sink *sink, const char *text, size_t size) {
  if (size < 32) packbuf_i_msgpack_put(sink, 0xA0 | (unsigned)size, 0, 0);
  else
    packbuf_i_msgpack_put(sink,
                          size <= 0xFF     ? 0xD9
                          : size <= 0xFFFF ? 0xDA
                                           : 0xDB,
                          size,
                          size <= 0xFF     ? 1
                          : size <= 0xFFFF ? 2
                                           : 4);
  packbuf_i_push(sink, text, size);
}

static void packbuf_i_msgpack_put_extension(packbuf_i_sink *sink, unsigned ext, uint64_t size) {
  if (size && size <= 16 && (size & (size - 1)) == 0)
    packbuf_i_msgpack_put(sink, 0xD4 + packbuf_i_first_set(size), 0, 0);
  else
    packbuf_i_msgpack_put(sink,
                          size <= 0xFF     ? 0xC7
                          : size <= 0xFFFF ? 0xC8
                                           : 0xC9,
                          size,
                          size <= 0xFF     ? 1
                          : size <= 0xFFFF ? 2
                                           : 4);
  packbuf_i_push_byte(sink, (uint8_t)ext);
}

static packbuf_status packbuf_i_msgpack_put_piece(packbuf_i_sink *sink, const packbuf_tensor *tensor,
                                                  const uint8_t *piece, size_t size, packbuf_error *error) {
  uint8_t *to =
      sink->at && sink->size <= sink->capacity && size <= sink->capacity - sink->size ? sink->at + sink->size : NULL;
  sink->size += size;
  if (!to) return PACKBUF_OK;
  if (tensor->device) {
    packbuf_status status = tensor->device->copy(tensor->device->context, to, piece, size);
    if (status) return packbuf_i_fail(error, status, "a device's copy hook failed", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  } else {
    memcpy(to, piece, size);
  }
  if (packbuf_i_big_endian()) packbuf_i_swap(to, size, packbuf_i_swap_unit(tensor->dtype));
  if (tensor->dtype.code == PACKBUF_DTYPE_BOOL &&
      packbuf_i_first_not_bool(to, size) < size) /* a device's were not seen before */
    return packbuf_i_fail(error, PACKBUF_BAD_BOOL, "a bool byte is neither 0 nor 1", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_msgpack_put_tensor(packbuf_i_sink *sink, const packbuf_tensor *tensor,
                                                   packbuf_error *error) {
  packbuf_i_pieces pieces;
  const uint8_t *piece;
  uint8_t body[4 + 8 * PACKBUF_MAX_RANK];
  packbuf_status status = PACKBUF_OK;
  if (tensor->rank > PACKBUF_MAX_RANK) return packbuf_i_unencodable(error, "a tensor has too many dimensions");
  packbuf_i_pieces_start(&pieces, tensor);
  packbuf_i_msgpack_put_extension(sink, PACKBUF_I_EXT_TENSOR, 4 + 8u * tensor->rank + pieces.left);
  body[0] = tensor->form ? tensor->form : (uint8_t)PACKBUF_FORM_TENSOR;
  body[1] = tensor->dtype.code;
  body[2] = tensor->dtype.bits;
  body[3] = tensor->rank;
  for (unsigned d = 0; d < tensor->rank; d++) packbuf_i_store64(body + 4 + 8 * d, tensor->shape[d]);
  packbuf_i_push(sink, body, 4 + 8u * tensor->rank);
  if (!sink->at || sink->size > sink->capacity || pieces.left > sink->capacity - sink->size) {
    /* measuring, or no room: every element counts, none is looked at */
    packbuf_i_push_size(sink, pieces.left);
    return PACKBUF_OK;
  }
  while (!status && (piece = packbuf_i_pieces_next(&pieces)) != NULL)
    status = packbuf_i_msgpack_put_piece(sink, tensor, piece, (size_t)pieces.size, error);
  return status;
}

static void packbuf_i_msgpack_put_attributes(packbuf_i_sink *sink, const packbuf_media *media) {
  size_t count = 0;
  for (unsigned i = 0; i < PACKBUF_I_ATTRIBUTES; i++) count += packbuf_i_attribute_of(media, i).kind != PACKBUF_NULL;
  packbuf_i_msgpack_put_count(sink, 0x80, 0xDE, count);
  for (unsigned i = 0; i < PACKBUF_I_ATTRIBUTES; i++) {
    const packbuf_value value = packbuf_i_attribute_of(media, i);
    if (value.kind == PACKBUF_NULL) continue;
    packbuf_i_msgpack_put_string(sink, packbuf_i_attribute_names[i], strlen(packbuf_i_attribute_names[i]));
    if (value.kind == PACKBUF_STRING) packbuf_i_msgpack_put_string(sink, value.as.text.data, value.as.text.size);
    else if (value.kind == PACKBUF_FLOAT) packbuf_i_msgpack_put_float(sink, &value.as.f);
    else packbuf_i_msgpack_put_int(sink, value.as.i);
  }
}

static void packbuf_i_msgpack_put_media(packbuf_i_sink *sink, const packbuf_media *media) {
  packbuf_i_sink measure = {NULL, 0, 0, 0};
  packbuf_i_msgpack_put_attributes(&measure, media);
  packbuf_i_msgpack_put_extension(sink, PACKBUF_I_EXT_MEDIA, measure.size + media->size);
  packbuf_i_msgpack_put_attributes(sink, media);
  packbuf_i_push(sink, media->data, media->size);
}

static void packbuf_i_msgpack_put_opaque(packbuf_i_sink *sink, const packbuf_opaque *opaque) {
  packbuf_i_sink measure = {NULL, 0, 0, 0};
  packbuf_i_msgpack_put_string(&measure, opaque->serializer, opaque->serializer_size);
  packbuf_i_msgpack_put_extension(sink, PACKBUF_I_EXT_OPAQUE, measure.size + opaque->size);
  packbuf_i_msgpack_put_string(sink, opaque->serializer, opaque->serializer_size);
  packbuf_i_push(sink, opaque->data, opaque->size);
}

static packbuf_status packbuf_i_msgpack_put_leaf(const packbuf_value *value, packbuf_i_sink *sink,
                                                 packbuf_error *error) {
  size_t size = value->as.text.size;
  switch (value->kind) {
    case PACKBUF_NULL: packbuf_i_push_byte(sink, 0xC0); break;
    case PACKBUF_BOOL: packbuf_i_push_byte(sink, value->as.boolean ? 0xC3 : 0xC2); break;
    case PACKBUF_INT: packbuf_i_msgpack_put_int(sink, value->as.i); break;
    case PACKBUF_UINT: packbuf_i_msgpack_put_uint(sink, value->as.u); break;
    case PACKBUF_FLOAT: packbuf_i_msgpack_put_float(sink, &value->as.f); break;
    case PACKBUF_STRING: packbuf_i_msgpack_put_string(sink, value->as.text.data, size); break;
    case PACKBUF_BIGINT:
      packbuf_i_msgpack_put_extension(sink, PACKBUF_I_EXT_BIGINT, size);
      packbuf_i_push(sink, value->as.text.data, size);
      break;
    case PACKBUF_BYTES:
      packbuf_i_msgpack_put(sink,
                            size <= 0xFF     ? 0xC4
                            : size <= 0xFFFF ? 0xC5
                                             : 0xC6,
                            size,
                            size <= 0xFF     ? 1
                            : size <= 0xFFFF ? 2
                                             : 4);
      packbuf_i_push(sink, value->as.text.data, size);
      break;
    case PACKBUF_TENSOR: return packbuf_i_msgpack_put_tensor(sink, value->as.tensor, error);
    case PACKBUF_MEDIA: packbuf_i_msgpack_put_media(sink, value->as.media); break;
    case PACKBUF_OPAQUE: packbuf_i_msgpack_put_opaque(sink, value->as.opaque); break;
    default: return packbuf_i_unencodable(error, "MessagePack has no such value");
  }
  return PACKBUF_OK;
}

/* Pushes a value for which packbuf_i_msgpack_can says OK: texts and equal keys are not looked at again. */
static packbuf_status packbuf_i_msgpack_encode(const packbuf_value *value, unsigned depth_left, packbuf_i_sink *sink,
                                               packbuf_error *error) {
  int list = value->kind == PACKBUF_LIST;
  size_t count = list ? value->as.list.count : value->as.dict.count;
  packbuf_status status = PACKBUF_OK;
  if (!list && value->kind != PACKBUF_DICT) return packbuf_i_msgpack_put_leaf(value, sink, error);
  if (!depth_left) return packbuf_i_fail(error, PACKBUF_DEPTH, "nested too deeply", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  packbuf_i_msgpack_put_count(sink, list ? 0x90 : 0x80, list ? 0xDC : 0xDE, count);
  for (size_t i = 0; i < count && !status; i++) {
    if (packbuf_i_push_enough(sink))
      return packbuf_i_fail(error, PACKBUF_LIMIT, "the object is too large", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    if (!list) status = packbuf_i_msgpack_put_leaf(&value->as.dict.entries[i].key, sink, error);
    if (!status)
      status = packbuf_i_msgpack_encode(list ? &value->as.list.items[i] : &value->as.dict.entries[i].value,
                                        depth_left - 1, sink, error);
  }
  return status;
}

/* ---- public ---- */

PACKBUF_API packbuf_status packbuf_msgpack_parse(const void *data, size_t size, unsigned max_depth,
                                                 packbuf_arena *arena, packbuf_value *value, packbuf_error *error) {
  return packbuf_i_msgpack_decode((const uint8_t *)data, size, max_depth, arena, value, error);
}

PACKBUF_API packbuf_status packbuf_msgpack_write(const packbuf_value *value, void *data, size_t capacity, size_t *size,
                                                 packbuf_error *error) {
  packbuf_i_sink sink;
  packbuf_status status = packbuf_i_msgpack_can(value, PACKBUF_I_DEPTH, NULL, error);
  sink.at = (uint8_t *)data;
  sink.capacity = capacity;
  sink.size = 0;
  sink.limit = sink.at ? 0 : capacity;
  if (!status) status = packbuf_i_msgpack_encode(value, PACKBUF_I_DEPTH, &sink, error);
  if (status) return status;
  if (sink.size > SIZE_MAX)
    return packbuf_i_fail(error, PACKBUF_LIMIT, "the object is larger than the address space", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  *size = (size_t)sink.size;
  if (data && sink.size > capacity)
    return packbuf_i_too_small(error, "the object is larger than the destination", PACKBUF_NOWHERE, sink.size);
  return PACKBUF_OK;
}
