/* core/value.c: dtypes, arrays (what makes one impossible, strided ones as contiguous pieces), the attributes of
 * media, values and their equality (section 16 of the spec), and what readers and writers of whole cells share.
 * May use: status, arena, utf8, decimal. Must not know: codecs, batches, packed buffers. */

/* ---- dtypes ---- */

/* clang-format off */
static const struct packbuf_i_dtype_entry {
  char name[16];
  packbuf_dtype dtype;
} packbuf_i_dtypes[] = {
    {"int8", {PACKBUF_DTYPE_INT, 8, 1}},           {"int16", {PACKBUF_DTYPE_INT, 16, 1}},
    {"int32", {PACKBUF_DTYPE_INT, 32, 1}},         {"int64", {PACKBUF_DTYPE_INT, 64, 1}},
    {"uint8", {PACKBUF_DTYPE_UINT, 8, 1}},         {"uint16", {PACKBUF_DTYPE_UINT, 16, 1}},
    {"uint32", {PACKBUF_DTYPE_UINT, 32, 1}},       {"uint64", {PACKBUF_DTYPE_UINT, 64, 1}},
    {"float16", {PACKBUF_DTYPE_FLOAT, 16, 1}},     {"float32", {PACKBUF_DTYPE_FLOAT, 32, 1}},
    {"float64", {PACKBUF_DTYPE_FLOAT, 64, 1}},     {"bfloat16", {PACKBUF_DTYPE_BFLOAT, 16, 1}},
    {"complex64", {PACKBUF_DTYPE_COMPLEX, 64, 1}}, {"complex128", {PACKBUF_DTYPE_COMPLEX, 128, 1}},
    {"bool", {PACKBUF_DTYPE_BOOL, 8, 1}},          {"float8_e4m3fn", {PACKBUF_DTYPE_FLOAT8_E4M3FN, 8, 1}},
    {"float8_e5m2", {PACKBUF_DTYPE_FLOAT8_E5M2, 8, 1}},
};
/* clang-format on */
#define PACKBUF_I_DTYPES (sizeof packbuf_i_dtypes / sizeof packbuf_i_dtypes[0])

static int packbuf_i_dtype_equal(packbuf_dtype a, packbuf_dtype b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

PACKBUF_API packbuf_dtype packbuf_dtype_of(packbuf_dtype_code code, unsigned bits) {
  packbuf_dtype dtype;
  dtype.code = (uint8_t)code;
  dtype.bits = (uint8_t)bits;
  dtype.lanes = 1;
  return dtype;
}

PACKBUF_API const char *packbuf_dtype_name(packbuf_dtype dtype) {
  for (size_t i = 0; i < PACKBUF_I_DTYPES; i++)
    if (packbuf_i_dtype_equal(packbuf_i_dtypes[i].dtype, dtype)) return packbuf_i_dtypes[i].name;
  return NULL;
}

PACKBUF_API int packbuf_dtype_parse(const char *name, packbuf_dtype *dtype) {
  for (size_t i = 0; i < PACKBUF_I_DTYPES; i++) {
    if (strcmp(packbuf_i_dtypes[i].name, name) != 0) continue;
    *dtype = packbuf_i_dtypes[i].dtype;
    return 1;
  }
  return 0;
}

/* 1 for the dtypes a leaf can have (section 8; not the 1-bit one of bitmaps). */
static int packbuf_i_dtype_known(packbuf_dtype dtype) {
  if (dtype.lanes != 1) return 0;
  switch (dtype.code) {
    case PACKBUF_DTYPE_INT:
    case PACKBUF_DTYPE_UINT: return dtype.bits == 8 || dtype.bits == 16 || dtype.bits == 32 || dtype.bits == 64;
    case PACKBUF_DTYPE_FLOAT: return dtype.bits == 16 || dtype.bits == 32 || dtype.bits == 64;
    case PACKBUF_DTYPE_BFLOAT: return dtype.bits == 16;
    case PACKBUF_DTYPE_COMPLEX: return dtype.bits == 64 || dtype.bits == 128;
    case PACKBUF_DTYPE_BOOL:
    case PACKBUF_DTYPE_FLOAT8_E4M3FN:
    case PACKBUF_DTYPE_FLOAT8_E5M2: return dtype.bits == 8;
    default: return 0;
  }
}

/* Bytes of an element of a dtype that takes whole bytes. */
static uint64_t packbuf_i_dtype_bytes(packbuf_dtype dtype) { return (uint64_t)dtype.bits * dtype.lanes / 8; }

/* The byte unit that big-endian machines reverse: an element, or half a complex one. */
static unsigned packbuf_i_swap_unit(packbuf_dtype dtype) {
  return dtype.code == PACKBUF_DTYPE_COMPLEX ? dtype.bits / 16u : dtype.bits / 8u;
}

static void packbuf_i_swap(uint8_t *bytes, uint64_t size, unsigned unit) {
  for (uint64_t at = 0; unit > 1 && at + unit <= size; at += unit)
    for (unsigned i = 0; i < unit / 2; i++) {
      uint8_t byte = bytes[at + i];
      bytes[at + i] = bytes[at + unit - 1 - i];
      bytes[at + unit - 1 - i] = byte;
    }
}

/* The first of `count` bytes that is neither 0 nor 1; count when there is none. */
static uint64_t packbuf_i_first_not_bool(const uint8_t *data, uint64_t count) {
  uint64_t i = 0;
  for (; i + 64 <= count; i += 64) {
    uint64_t bits = 0;
    for (unsigned k = 0; k < 64; k += 8) bits |= packbuf_i_load64(data + i + k);
    if (bits & UINT64_C(0xFEFEFEFEFEFEFEFE)) break;
  }
  while (i < count && data[i] <= 1) i++;
  return i;
}

/* The product of a shape's dimensions in *count, 0 when one is 0. Returns 0 when the dimensions that are not 0, times
 * the element, reach 2^63. */
static int packbuf_i_shape_count(const uint64_t *shape, unsigned rank, uint64_t element, uint64_t *count) {
  uint64_t bytes = element;
  int empty = 0;
  *count = 0;
  if (!element) return 0;
  for (unsigned d = 0; d < rank; d++) {
    if (shape[d] == 0) empty = 1;
    else if (!packbuf_i_mul(bytes, shape[d], &bytes) || bytes >> 63) return 0;
  }
  *count = empty ? 0 : bytes / element;
  return 1;
}

/* What makes an array impossible for any codec to take: an unknown dtype, a form or rank it cannot have, dimensions
 * that overflow, no data, a device that cannot be copied from. */
static packbuf_status packbuf_i_array_fault(const packbuf_tensor *tensor, const char **message) {
  uint64_t count;
  *message = "an array's dtype is not one of section 8";
  if (!packbuf_i_dtype_known(tensor->dtype)) return PACKBUF_UNSUPPORTED_DTYPE;
  *message = "an array has at most 8 dimensions, and a shape";
  if (tensor->rank > PACKBUF_MAX_RANK || (tensor->rank && !tensor->shape)) return PACKBUF_INVALID_ARGUMENT;
  *message = "an array's form is not one that arrays have";
  if (tensor->form == PACKBUF_FORM_LIST || tensor->form > PACKBUF_FORM_SCALAR) return PACKBUF_INVALID_ARGUMENT;
  *message = "an array's shape is too large";
  if (!packbuf_i_shape_count(tensor->shape, tensor->rank, packbuf_i_dtype_bytes(tensor->dtype), &count))
    return PACKBUF_INVALID_ARGUMENT;
  *message = "an array has no data";
  if (count && !tensor->data) return PACKBUF_INVALID_ARGUMENT;
  *message = "device memory needs a copy hook";
  return tensor->device && !tensor->device->copy ? PACKBUF_UNSUPPORTED_DEVICE : PACKBUF_OK;
}

/* ---- constructors ---- */

static packbuf_value packbuf_i_make(packbuf_kind kind) {
  packbuf_value value;
  memset(&value, 0, sizeof value);
  value.kind = (uint8_t)kind;
  return value;
}

static packbuf_value packbuf_i_make_text(packbuf_kind kind, const char *data, size_t size) {
  packbuf_value value = packbuf_i_make(kind);
  value.as.text.data = data;
  value.as.text.size = size;
  return value;
}

PACKBUF_API packbuf_value packbuf_null(void) { return packbuf_i_make(PACKBUF_NULL); }
PACKBUF_API packbuf_value packbuf_missing(void) { return packbuf_i_make(PACKBUF_MISSING); }

PACKBUF_API packbuf_value packbuf_bool(int boolean) {
  packbuf_value value = packbuf_i_make(PACKBUF_BOOL);
  value.as.boolean = boolean != 0;
  return value;
}

PACKBUF_API packbuf_value packbuf_int(int64_t i) {
  packbuf_value value = packbuf_i_make(PACKBUF_INT);
  value.as.i = i;
  return value;
}

PACKBUF_API packbuf_value packbuf_uint(uint64_t u) {
  packbuf_value value = packbuf_i_make(PACKBUF_UINT);
  value.as.u = u;
  return value;
}

PACKBUF_API packbuf_value packbuf_bigint(const char *text) {
  return packbuf_i_make_text(PACKBUF_BIGINT, text, strlen(text));
}

/* From the 8 bytes of a double. By address: the x87 makes a signalling NaN quiet when it loads or passes one. */
static packbuf_value packbuf_i_float_of(const void *bits) {
  packbuf_value value = packbuf_i_make(PACKBUF_FLOAT);
  memcpy(&value.as.f, bits, 8);
  return value;
}

PACKBUF_API packbuf_value packbuf_float(double f) { return packbuf_i_float_of(&f); }

PACKBUF_API packbuf_value packbuf_string(const char *text) {
  return packbuf_i_make_text(PACKBUF_STRING, text, strlen(text));
}
PACKBUF_API packbuf_value packbuf_string_n(const char *text, size_t size) {
  return packbuf_i_make_text(PACKBUF_STRING, text, size);
}
PACKBUF_API packbuf_value packbuf_bytes(const void *data, size_t size) {
  return packbuf_i_make_text(PACKBUF_BYTES, (const char *)data, size);
}

PACKBUF_API packbuf_value packbuf_list(const packbuf_value *items, size_t count) {
  packbuf_value value = packbuf_i_make(PACKBUF_LIST);
  value.as.list.items = items;
  value.as.list.count = count;
  return value;
}

PACKBUF_API packbuf_value packbuf_dict(const packbuf_entry *entries, size_t count) {
  packbuf_value value = packbuf_i_make(PACKBUF_DICT);
  value.as.dict.entries = entries;
  value.as.dict.count = count;
  return value;
}

PACKBUF_API packbuf_value packbuf_tensor_value(const packbuf_tensor *tensor) {
  packbuf_value value = packbuf_i_make(PACKBUF_TENSOR);
  value.as.tensor = tensor;
  return value;
}

PACKBUF_API packbuf_value packbuf_media_value(const packbuf_media *media) {
  packbuf_value value = packbuf_i_make(PACKBUF_MEDIA);
  value.as.media = media;
  return value;
}

PACKBUF_API packbuf_value packbuf_opaque_value(const packbuf_opaque *opaque) {
  packbuf_value value = packbuf_i_make(PACKBUF_OPAQUE);
  value.as.opaque = opaque;
  return value;
}

PACKBUF_API packbuf_media packbuf_media_of(const void *data, size_t size, const char *mime) {
  packbuf_media media;
  memset(&media, 0, sizeof media);
  media.data = data;
  media.size = size;
  media.mime = mime;
  media.mime_size = mime ? strlen(mime) : 0;
  media.height = media.width = media.channels = -1;
  return media;
}

/* ---- strided arrays as contiguous pieces, in row-major order ---- */

typedef struct packbuf_i_pieces {
  const packbuf_tensor *tensor;
  const uint8_t *at;
  uint64_t size, left; /* bytes of a piece; bytes to go */
  unsigned outer;      /* dimensions that are walked; the others lie side by side */
  uint64_t index[PACKBUF_MAX_RANK];
} packbuf_i_pieces;

static void packbuf_i_pieces_start(packbuf_i_pieces *pieces, const packbuf_tensor *tensor) {
  uint64_t count = 0;
  unsigned d = tensor->rank;
  memset(pieces, 0, sizeof *pieces);
  pieces->tensor = tensor;
  pieces->at = (const uint8_t *)tensor->data;
  pieces->size = packbuf_i_dtype_bytes(tensor->dtype);
  if (!packbuf_i_shape_count(tensor->shape, tensor->rank, pieces->size, &count)) return;
  pieces->left = count * pieces->size;
  while (pieces->left && d > 0 &&
         (!tensor->strides || tensor->shape[d - 1] == 1 || tensor->strides[d - 1] == (int64_t)pieces->size))
    pieces->size *= tensor->shape[--d];
  pieces->outer = d;
}

/* The next piece, of pieces->size bytes; NULL at the end. */
static const uint8_t *packbuf_i_pieces_next(packbuf_i_pieces *pieces) {
  const packbuf_tensor *tensor = pieces->tensor;
  const uint8_t *here = pieces->at;
  if (pieces->left < pieces->size || pieces->left == 0) return NULL;
  pieces->left -= pieces->size;
  for (unsigned d = pieces->outer; pieces->left && d-- > 0;) {
    if (++pieces->index[d] < tensor->shape[d]) {
      pieces->at += tensor->strides[d];
      break;
    }
    pieces->at -= tensor->strides[d] * (int64_t)(tensor->shape[d] - 1);
    pieces->index[d] = 0;
  }
  return here;
}

/* ---- equality ---- */

static int packbuf_i_same_bytes(const void *a, size_t a_size, const void *b, size_t b_size) {
  return a_size == b_size && (a_size == 0 || memcmp(a, b, a_size) == 0);
}

/* As names are ordered: by unsigned bytes, a prefix before its extension. */
static int packbuf_i_compare_text(const char *a, size_t a_size, const char *b, size_t b_size) {
  size_t shorter = a_size < b_size ? a_size : b_size;
  int order = shorter ? memcmp(a, b, shorter) : 0;
  return order ? order : a_size < b_size ? -1 : a_size > b_size;
}

/* Decimal text -?[1-9][0-9]* */
static int packbuf_i_is_decimal(const char *text, size_t size) {
  size_t at = text && size && text[0] == '-';
  if (!text || at == size || text[at] == '0') return 0;
  for (; at < size; at++)
    if (text[at] < '0' || text[at] > '9') return 0;
  return 1;
}

/* The same, and beyond 64 bits: what a BIGINT must be to be written. */
static int packbuf_i_is_bigint(const char *text, size_t size) {
  int64_t i;
  uint64_t u;
  return packbuf_i_is_decimal(text, size) && packbuf_i_parse_integer(text, size, &i, &u) == 0;
}

/* An integer in normal form: 0 below zero (*u are the bits of the int64), 1 from zero on, 2 beyond 64 bits (only the
 * text tells). */
static int packbuf_i_integer_form(const packbuf_value *value, uint64_t *u) {
  int64_t i = 0;
  *u = 0;
  if (value->kind == PACKBUF_BIGINT) {
    int fits = packbuf_i_is_decimal(value->as.text.data, value->as.text.size)
                   ? packbuf_i_parse_integer(value->as.text.data, value->as.text.size, &i, u)
                   : 0;
    if (fits == 0) return 2;
    if (fits == 2) return 1;
  } else if (value->kind == PACKBUF_UINT) {
    *u = value->as.u;
    return 1;
  } else {
    i = value->as.i;
  }
  *u = (uint64_t)i;
  return i >= 0;
}

static int packbuf_i_is_integer(const packbuf_value *value) {
  return value->kind == PACKBUF_INT || value->kind == PACKBUF_UINT || value->kind == PACKBUF_BIGINT;
}

static int packbuf_i_integer_equal(const packbuf_value *a, const packbuf_value *b) {
  uint64_t x, y;
  int form = packbuf_i_integer_form(a, &x);
  if (form != packbuf_i_integer_form(b, &y) || x != y) return 0;
  return form != 2 || packbuf_i_same_bytes(a->as.text.data, a->as.text.size, b->as.text.data, b->as.text.size);
}

/* By address, as packbuf_i_float_of. */
static uint64_t packbuf_i_double_bits(const double *f) {
  uint64_t bits;
  memcpy(&bits, f, 8);
  return bits;
}

static int packbuf_i_tensor_equal(const packbuf_tensor *a, const packbuf_tensor *b) {
  packbuf_i_pieces x, y;
  const uint8_t *p = NULL, *q = NULL;
  uint64_t p_left = 0, q_left = 0;
  unsigned a_form = a->form ? a->form : (unsigned)PACKBUF_FORM_TENSOR,
           b_form = b->form ? b->form : (unsigned)PACKBUF_FORM_TENSOR;
  if (a_form != b_form || !packbuf_i_dtype_equal(a->dtype, b->dtype) || a->rank != b->rank || a->device || b->device ||
      !packbuf_i_dtype_known(a->dtype))
    return 0;
  for (unsigned d = 0; d < a->rank; d++)
    if (a->shape[d] != b->shape[d]) return 0;
  packbuf_i_pieces_start(&x, a);
  packbuf_i_pieces_start(&y, b);
  for (;;) {
    size_t n;
    if (!p_left) {
      p = packbuf_i_pieces_next(&x);
      p_left = x.size;
    }
    if (!q_left) {
      q = packbuf_i_pieces_next(&y);
      q_left = y.size;
    }
    if (!p || !q) return p == q;
    n = (size_t)(p_left < q_left ? p_left : q_left);
    if (memcmp(p, q, n) != 0) return 0;
    p += n;
    q += n;
    p_left -= n;
    q_left -= n;
  }
}

/* The attributes of media, in the order they are written (section 9). */
typedef enum packbuf_i_attribute {
  PACKBUF_I_MIME,
  PACKBUF_I_HEIGHT,
  PACKBUF_I_WIDTH,
  PACKBUF_I_CHANNELS,
  PACKBUF_I_MODE,
  PACKBUF_I_RATE,
  PACKBUF_I_ATTRIBUTES
} packbuf_i_attribute;

static const char packbuf_i_attribute_names[PACKBUF_I_ATTRIBUTES][9] = {"mime",     "height", "width",
                                                                        "channels", "mode",   "rate"};

/* Which attribute has the name; PACKBUF_I_ATTRIBUTES: none. */
static unsigned packbuf_i_attribute_named(const void *name, size_t size) {
  unsigned i = 0;
  while (i < PACKBUF_I_ATTRIBUTES &&
         !packbuf_i_same_bytes(name, size, packbuf_i_attribute_names[i], strlen(packbuf_i_attribute_names[i])))
    i++;
  return i;
}

/* An attribute as a value; null when there is none. */
static packbuf_value packbuf_i_attribute_of(const packbuf_media *media, unsigned attribute) {
  switch (attribute) {
    case PACKBUF_I_MIME: return media->mime ? packbuf_string_n(media->mime, media->mime_size) : packbuf_null();
    case PACKBUF_I_MODE: return media->mode ? packbuf_string_n(media->mode, media->mode_size) : packbuf_null();
    case PACKBUF_I_HEIGHT: return media->height >= 0 ? packbuf_int(media->height) : packbuf_null();
    case PACKBUF_I_WIDTH: return media->width >= 0 ? packbuf_int(media->width) : packbuf_null();
    case PACKBUF_I_CHANNELS: return media->channels >= 0 ? packbuf_int(media->channels) : packbuf_null();
    default: return media->has_rate ? packbuf_i_float_of(&media->rate) : packbuf_null();
  }
}

/* The same back: a value of the attribute's kind; null, or a number below 0, changes nothing. */
static void packbuf_i_set_attribute(packbuf_media *media, unsigned attribute, const packbuf_value *value) {
  if (value->kind == PACKBUF_STRING && attribute == PACKBUF_I_MIME) {
    media->mime = value->as.text.data;
    media->mime_size = value->as.text.size;
  } else if (value->kind == PACKBUF_STRING && attribute == PACKBUF_I_MODE) {
    media->mode = value->as.text.data;
    media->mode_size = value->as.text.size;
  } else if (value->kind == PACKBUF_FLOAT && attribute == PACKBUF_I_RATE) {
    memcpy(&media->rate, &value->as.f, 8);
    media->has_rate = 1;
  } else if (value->kind == PACKBUF_INT && value->as.i >= 0) {
    if (attribute == PACKBUF_I_HEIGHT) media->height = value->as.i;
    if (attribute == PACKBUF_I_WIDTH) media->width = value->as.i;
    if (attribute == PACKBUF_I_CHANNELS) media->channels = value->as.i;
  }
}

static int packbuf_i_media_equal(const packbuf_media *a, const packbuf_media *b) {
  if (!a->mime != !b->mime || !a->mode != !b->mode || !a->has_rate != !b->has_rate) return 0;
  if (a->height != b->height || a->width != b->width || a->channels != b->channels) return 0;
  if (a->has_rate && packbuf_i_double_bits(&a->rate) != packbuf_i_double_bits(&b->rate)) return 0;
  if (a->mime && !packbuf_i_same_bytes(a->mime, a->mime_size, b->mime, b->mime_size)) return 0;
  if (a->mode && !packbuf_i_same_bytes(a->mode, a->mode_size, b->mode, b->mode_size)) return 0;
  return packbuf_i_same_bytes(a->data, a->size, b->data, b->size);
}

/* Looks for each key where the last was found and onwards: linear for keys in the same order, quadratic only for
 * shuffled ones. */
static int packbuf_i_dict_equal(const packbuf_value *a, const packbuf_value *b) {
  size_t count = a->as.dict.count, at = 0;
  if (count != b->as.dict.count) return 0;
  for (size_t i = 0; i < count; i++) {
    const packbuf_entry *x = &a->as.dict.entries[i], *y = NULL;
    for (size_t tried = 0; tried < count && !y; tried++) {
      const packbuf_entry *other = &b->as.dict.entries[at];
      if (packbuf_equal(&x->key, &other->key)) y = other;
      if (++at == count) at = 0;
    }
    if (!y || !packbuf_equal(&x->value, &y->value)) return 0;
  }
  return 1;
}

PACKBUF_API int packbuf_equal(const packbuf_value *a, const packbuf_value *b) {
  if (packbuf_i_is_integer(a)) return packbuf_i_is_integer(b) && packbuf_i_integer_equal(a, b);
  if (a->kind != b->kind) return 0;
  switch (a->kind) {
    case PACKBUF_NULL:
    case PACKBUF_MISSING: return 1;
    case PACKBUF_BOOL: return !a->as.boolean == !b->as.boolean;
    case PACKBUF_FLOAT: return packbuf_i_double_bits(&a->as.f) == packbuf_i_double_bits(&b->as.f);
    case PACKBUF_STRING:
    case PACKBUF_BYTES: return packbuf_i_same_bytes(a->as.text.data, a->as.text.size, b->as.text.data, b->as.text.size);
    case PACKBUF_MEDIA: return packbuf_i_media_equal(a->as.media, b->as.media);
    case PACKBUF_OPAQUE:
      return packbuf_i_same_bytes(a->as.opaque->data, a->as.opaque->size, b->as.opaque->data, b->as.opaque->size) &&
             packbuf_i_same_bytes(a->as.opaque->serializer, a->as.opaque->serializer_size, b->as.opaque->serializer,
                                  b->as.opaque->serializer_size);
    case PACKBUF_TENSOR: return packbuf_i_tensor_equal(a->as.tensor, b->as.tensor);
    case PACKBUF_LIST:
      if (a->as.list.count != b->as.list.count) return 0;
      for (size_t i = 0; i < a->as.list.count; i++)
        if (!packbuf_equal(&a->as.list.items[i], &b->as.list.items[i])) return 0;
      return 1;
    case PACKBUF_DICT: return packbuf_i_dict_equal(a, b);
    default: return 0;
  }
}

PACKBUF_API const packbuf_value *packbuf_dict_get(const packbuf_value *dict, const char *key) {
  size_t size = strlen(key);
  if (dict->kind != PACKBUF_DICT) return NULL;
  for (size_t i = 0; i < dict->as.dict.count; i++) {
    const packbuf_entry *entry = &dict->as.dict.entries[i];
    if (entry->key.kind == PACKBUF_STRING &&
        packbuf_i_same_bytes(entry->key.as.text.data, entry->key.as.text.size, key, size))
      return &entry->value;
  }
  return NULL;
}

/* ---- what the readers and writers of whole cells share ---- */

#define PACKBUF_I_DEPTH 512       /* the default limit of nesting */
#define PACKBUF_I_DEPTH_LAST 4096 /* what a caller can raise it to: the stack is finite */

static unsigned packbuf_i_depth(unsigned max_depth) {
  if (max_depth == 0) return PACKBUF_I_DEPTH;
  return max_depth < PACKBUF_I_DEPTH_LAST ? max_depth : PACKBUF_I_DEPTH_LAST;
}

static packbuf_status packbuf_i_unencodable(packbuf_error *error, const char *message) {
  return packbuf_i_fail(error, PACKBUF_UNENCODABLE, message, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

/* Lists and dicts without what their count says; tensors, media and opaque values that are NULL. */
static int packbuf_i_no_items(const packbuf_value *value) {
  return value->kind == PACKBUF_LIST ? value->as.list.count && !value->as.list.items
                                     : value->as.dict.count && !value->as.dict.entries;
}

static int packbuf_i_points_nowhere(const packbuf_value *value) {
  return (value->kind == PACKBUF_TENSOR && !value->as.tensor) || (value->kind == PACKBUF_MEDIA && !value->as.media) ||
         (value->kind == PACKBUF_OPAQUE && !value->as.opaque);
}

/* A text of a value: the offset reported is into this text. */
static packbuf_status packbuf_i_check_utf8(const char *text, size_t size, packbuf_error *error) {
  size_t valid = size && text ? packbuf_i_utf8_valid((const uint8_t *)text, size) : 0;
  if (size && !text) return packbuf_i_unencodable(error, "a string has no data");
  if (valid == size) return PACKBUF_OK;
  return packbuf_i_fail(error, PACKBUF_BAD_UTF8, "a string is not UTF-8 (the offset is into the string)", valid,
                        PACKBUF_NOWHERE);
}
