/* exchange/arrow_type.c: what a schema of Arrow says, read once and checked: formats, children, metadata. Types that
 * have no place in a packed buffer are refused by name.
 * May use: arena, arrow_words. Must not know: arrays. */

#define PACKBUF_I_ARROW_DEPTH 64
#define PACKBUF_I_ARROW_TYPES 1048576 /* in one schema: children that are children of many would be walked for ever */

typedef enum packbuf_i_arrow_kind {
  PACKBUF_I_ARROW_NULL,
  PACKBUF_I_ARROW_NUMBER,
  PACKBUF_I_ARROW_BOOL,
  PACKBUF_I_ARROW_BYTES,   /* text and bytes with offsets */
  PACKBUF_I_ARROW_VIEWS,   /* text and bytes as views */
  PACKBUF_I_ARROW_BLOCK,   /* bytes of one size */
  PACKBUF_I_ARROW_LIST,    /* lists with offsets */
  PACKBUF_I_ARROW_ROW,     /* lists of one size */
  PACKBUF_I_ARROW_COMPLEX, /* one of those: complex numbers */
  PACKBUF_I_ARROW_STRUCT,
  PACKBUF_I_ARROW_DICTIONARY
} packbuf_i_arrow_kind;

/* What bytes are. */
typedef enum packbuf_i_arrow_cell {
  PACKBUF_I_CELL_BYTES,
  PACKBUF_I_CELL_TEXT,
  PACKBUF_I_CELL_JSON,
  PACKBUF_I_CELL_MSGPACK,
  PACKBUF_I_CELL_OPAQUE,
  PACKBUF_I_CELL_TENSOR, /* a struct of elements and shape */
  PACKBUF_I_CELL_PLACES, /* a struct of a list's items by place, and its length */
  PACKBUF_I_CELL_MEDIA
} packbuf_i_arrow_cell;

/* A type: of a column, or below one. */
typedef struct packbuf_i_arrow {
  packbuf_i_arrow_kind kind;
  packbuf_i_arrow_cell cell;
  uint8_t wide;        /* offsets of 64 bits, not 32 */
  uint8_t rank;        /* ROW that is arrow.fixed_shape_tensor: of a cell; else 0 */
  uint8_t form;        /* TENSOR cells: tensor or array */
  packbuf_dtype dtype; /* NUMBER, COMPLEX; of a DICTIONARY its indexes */
  uint64_t size;       /* ROW: elements; BLOCK: bytes */
  uint64_t shape[PACKBUF_MAX_RANK];
  const char *unit;        /* of times: as the format's timestamps have it; NULL: no time */
  packbuf_text zone;       /* of time stamps */
  packbuf_text serializer; /* OPAQUE */
  packbuf_text name;       /* of a field of a struct */
  const char *path;        /* escaped, NUL-terminated */
  const struct ArrowSchema *schema;
  struct packbuf_i_arrow *children; /* schema->n_children; of a DICTIONARY one, its values */
  int64_t count;
} packbuf_i_arrow;

/* What one import shares. */
typedef struct packbuf_i_importer {
  packbuf_batch *batch;
  packbuf_arena *arena;
  packbuf_error *error;
  size_t types, times; /* types: all that were read; times: those of them that are times */
} packbuf_i_importer;

static packbuf_status packbuf_i_refuse_arrow(const packbuf_i_importer *in, const char *path, packbuf_status code,
                                             const char *message, uint64_t row) {
  packbuf_i_fail(in->error, code, message, PACKBUF_NOWHERE, row);
  if (in->error && path) packbuf_i_set_path(in->error, path, strlen(path));
  return code;
}

static packbuf_status packbuf_i_refuse_type(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            packbuf_status code, const char *message) {
  return packbuf_i_refuse_arrow(in, type->path, code, message, PACKBUF_NOWHERE);
}

/* ---- metadata ---- */

/* How many pairs Arrow's metadata have; *at then stands before the first. Below 0: they break their own form. */
static int32_t packbuf_i_arrow_pairs(const char *metadata, const char **at) {
  int32_t count = 0;
  if (metadata) {
    memcpy(&count, metadata, 4);
    *at = metadata + 4;
  }
  return count;
}

/* The next pair; 0: it breaks the form. */
static int packbuf_i_arrow_pair(const char **at, packbuf_text pair[2]) {
  for (int part = 0; part < 2; part++) {
    int32_t size;
    memcpy(&size, *at, 4);
    if (size < 0) return 0;
    pair[part].data = *at + 4;
    pair[part].size = (size_t)size;
    *at += 4 + (size_t)size;
  }
  return 1;
}

/* The text of a key in Arrow's metadata; size 0: none. What breaks their form ends them. */
static packbuf_text packbuf_i_arrow_text(const char *metadata, const char *key) {
  const packbuf_text none = {"", 0};
  const char *at;
  packbuf_text pair[2];
  for (int32_t count = packbuf_i_arrow_pairs(metadata, &at); count > 0 && packbuf_i_arrow_pair(&at, pair); count--)
    if (packbuf_i_text_is(pair[0], key)) return pair[1];
  return none;
}

/* ---- formats ---- */

/* A format of numbers of one letter. */
static int packbuf_i_format_dtype(const char *format, packbuf_dtype *dtype) {
  static const char letters[] = "csilCSILefg";
  const char *at = format[0] && !format[1] ? strchr(letters, format[0]) : NULL;
  const unsigned i = at ? (unsigned)(at - letters) : 0;
  if (!at) return 0;
  if (i < 8) *dtype = packbuf_dtype_of(i < 4 ? PACKBUF_DTYPE_INT : PACKBUF_DTYPE_UINT, 8u << i % 4);
  else *dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 16u << (i - 8));
  return 1;
}

/* Times, which are int64 in a packed buffer: dtype as Arrow has it, unit and zone. 0: it is none. */
static int packbuf_i_format_time(const char *format, packbuf_i_arrow *type) {
  static const char *const units[] = {"s", "ms", "us", "ns"};
  static const char letters[] = "smun";
  type->dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  if (strcmp(format, "tdD") == 0) {
    type->dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32);
    type->unit = "D";
  } else if (strcmp(format, "tdm") == 0) {
    type->unit = "ms";
  } else if (format[0] == 't' && format[1] == 's' && format[2] && strchr(letters, format[2]) && format[3] == ':') {
    type->unit = units[strchr(letters, format[2]) - letters];
    type->zone = packbuf_i_text_of(format + 4);
  }
  return type->unit != NULL;
}

/* What is said of a type that is refused. */
static const char *packbuf_i_refused_type(const char *format) {
  static const char *const types[][2] = {
      {"d:", "Arrow's decimals have no place in a packed buffer"},
      {"tt", "Arrow's times of day have no place in a packed buffer"},
      {"tD", "Arrow's durations have no place in a packed buffer"},
      {"ti", "Arrow's intervals have no place in a packed buffer"},
      {"+v", "Arrow's list views are not read: cast them to lists"},
      {"+u", "Arrow's unions have no place in a packed buffer"},
      {"+m", "Arrow's maps have no place in a packed buffer: cast them to lists of structs"},
      {"+r", "Arrow's run-end encoded arrays are not read: decode them"},
  };
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    if (strncmp(format, types[i][0], 2) == 0) return types[i][1];
  return "no format string of Arrow's that is known";
}

/* Kind, and how many children it has (-1: any number); UNSUPPORTED_DTYPE. */
static packbuf_status packbuf_i_read_format(const packbuf_i_importer *in, packbuf_i_arrow *type, int64_t *children) {
  const char *f = type->schema->format;
  *children = 0;
  if (strcmp(f, "n") == 0) {
    type->kind = PACKBUF_I_ARROW_NULL;
  } else if (strcmp(f, "b") == 0) {
    type->kind = PACKBUF_I_ARROW_BOOL;
  } else if (packbuf_i_format_dtype(f, &type->dtype) || packbuf_i_format_time(f, type)) {
    type->kind = PACKBUF_I_ARROW_NUMBER;
  } else if (f[0] && strchr("zZuU", f[0]) && !f[1]) {
    type->kind = PACKBUF_I_ARROW_BYTES;
    type->cell = f[0] == 'u' || f[0] == 'U' ? PACKBUF_I_CELL_TEXT : PACKBUF_I_CELL_BYTES;
    type->wide = f[0] == 'Z' || f[0] == 'U';
  } else if (strcmp(f, "vu") == 0 || strcmp(f, "vz") == 0) {
    type->kind = PACKBUF_I_ARROW_VIEWS;
    type->cell = f[1] == 'u' ? PACKBUF_I_CELL_TEXT : PACKBUF_I_CELL_BYTES;
  } else if (f[0] == 'w' && f[1] == ':' && packbuf_i_format_number(f + 2, &type->size)) {
    type->kind = PACKBUF_I_ARROW_BLOCK;
  } else if (strcmp(f, "+l") == 0 || strcmp(f, "+L") == 0) {
    type->kind = PACKBUF_I_ARROW_LIST;
    type->wide = f[1] == 'L';
    *children = 1;
  } else if (f[0] == '+' && f[1] == 'w' && f[2] == ':' && packbuf_i_format_number(f + 3, &type->size)) {
    type->kind = PACKBUF_I_ARROW_ROW;
    *children = 1;
  } else if (strcmp(f, "+s") == 0) {
    type->kind = PACKBUF_I_ARROW_STRUCT;
    *children = -1;
  } else {
    return packbuf_i_refuse_type(in, type, PACKBUF_UNSUPPORTED_DTYPE, packbuf_i_refused_type(f));
  }
  return PACKBUF_OK;
}

/* Whether dimensions are in their order: no permutation, or that of none. */
static int packbuf_i_in_order(const packbuf_value *permutation, size_t rank) {
  if (!permutation) return 1;
  if (permutation->kind != PACKBUF_LIST || permutation->as.list.count != rank) return 0;
  for (size_t i = 0; i < rank; i++)
    if (permutation->as.list.items[i].kind != PACKBUF_INT || permutation->as.list.items[i].as.i != (int64_t)i) return 0;
  return 1;
}

/* The shape of arrow.fixed_shape_tensor, {"shape":[2,3]}; another order of the dimensions, or what is no such text,
 * leaves flat lists. */
static void packbuf_i_read_shape(const packbuf_i_importer *in, packbuf_i_arrow *type, packbuf_text text) {
  packbuf_value value;
  const packbuf_value *shape;
  uint64_t size = 1;
  if (packbuf_json_parse(text.data, text.size, 4, in->arena, &value, NULL) != PACKBUF_OK) return;
  if (value.kind != PACKBUF_DICT) return;
  shape = packbuf_dict_get(&value, "shape");
  if (!shape || shape->kind != PACKBUF_LIST || shape->as.list.count < 1 || shape->as.list.count >= PACKBUF_MAX_RANK)
    return;
  if (!packbuf_i_in_order(packbuf_dict_get(&value, "permutation"), shape->as.list.count)) return;
  for (size_t i = 0; i < shape->as.list.count; i++) {
    const packbuf_value *one = &shape->as.list.items[i];
    if (one->kind != PACKBUF_INT || one->as.i < 0 || one->as.i > INT32_MAX) return;
    type->shape[i] = (uint64_t)one->as.i;
    if (!packbuf_i_mul(size, type->shape[i], &size)) return;
  }
  if (size == type->size) type->rank = (uint8_t)shape->as.list.count;
}

/* Whether a struct is what arrow_schema.c makes of ragged numbers of rank 2 and more: lists `data` and `shape`. */
static int packbuf_i_is_shaped(const packbuf_i_arrow *type, packbuf_text codec) {
  const packbuf_i_arrow *parts = type->children, *item;
  if (type->kind != PACKBUF_I_ARROW_STRUCT || type->count != 2 || parts[0].kind != PACKBUF_I_ARROW_LIST ||
      parts[1].kind != PACKBUF_I_ARROW_LIST || parts[1].children[0].kind != PACKBUF_I_ARROW_NUMBER)
    return 0;
  item = &parts[0].children[0];
  return (packbuf_i_text_is(codec, "ragged_tensor") || packbuf_i_text_is(codec, "typed_ragged")) &&
         (item->kind == PACKBUF_I_ARROW_NUMBER || item->kind == PACKBUF_I_ARROW_BOOL ||
          item->kind == PACKBUF_I_ARROW_COMPLEX);
}

/* What metadata add to the format: extension types, and what arrow_schema.c wrote. */
static void packbuf_i_read_metadata(const packbuf_i_importer *in, packbuf_i_arrow *type) {
  const char *metadata = type->schema->metadata;
  const packbuf_text extension = packbuf_i_arrow_text(metadata, PACKBUF_I_EXTENSION_NAME);
  const packbuf_text codec = packbuf_i_arrow_text(metadata, PACKBUF_I_CODEC_KEY);
  const packbuf_text name = packbuf_i_arrow_text(metadata, PACKBUF_I_DTYPE_KEY);
  char text[16];
  packbuf_dtype dtype;
  if (type->cell == PACKBUF_I_CELL_TEXT && packbuf_i_text_is(extension, "arrow.json")) type->cell = PACKBUF_I_CELL_JSON;
  if (type->kind == PACKBUF_I_ARROW_BYTES && type->cell == PACKBUF_I_CELL_BYTES) {
    type->serializer = packbuf_i_arrow_text(metadata, PACKBUF_I_SERIALIZER_KEY);
    if (packbuf_i_text_is(codec, "msgpack_ragged")) type->cell = PACKBUF_I_CELL_MSGPACK;
    if (packbuf_i_text_is(codec, "media_bytes")) type->cell = PACKBUF_I_CELL_MEDIA;
    if (packbuf_i_text_is(codec, packbuf_codec_name(PACKBUF_CODEC_OPAQUE_RAGGED)) && type->serializer.size)
      type->cell = PACKBUF_I_CELL_OPAQUE;
  }
  if (type->kind == PACKBUF_I_ARROW_STRUCT && packbuf_i_text_is(codec, "media_bytes"))
    type->cell = PACKBUF_I_CELL_MEDIA;
  if (type->kind == PACKBUF_I_ARROW_STRUCT && type->count && packbuf_i_text_is(codec, PACKBUF_I_PLACES) &&
      type->children[type->count - 1].kind == PACKBUF_I_ARROW_NUMBER)
    type->cell = PACKBUF_I_CELL_PLACES;
  if (packbuf_i_is_shaped(type, codec)) {
    type->cell = PACKBUF_I_CELL_TENSOR;
    type->form = packbuf_i_text_is(codec, "ragged_tensor") ? PACKBUF_FORM_TENSOR : PACKBUF_FORM_ARRAY;
  }
  if (type->kind == PACKBUF_I_ARROW_ROW && packbuf_i_text_is(extension, "arrow.fixed_shape_tensor"))
    packbuf_i_read_shape(in, type, packbuf_i_arrow_text(metadata, PACKBUF_I_EXTENSION_TEXT));
  if (name.size == 0 || name.size >= sizeof text) return;
  memcpy(text, name.data, name.size);
  text[name.size] = 0;
  if (!packbuf_dtype_parse(text, &dtype)) return;
  if (type->kind == PACKBUF_I_ARROW_NUMBER && !type->unit && type->dtype.code == PACKBUF_DTYPE_UINT &&
      type->dtype.bits == dtype.bits && dtype.code > PACKBUF_DTYPE_FLOAT && dtype.code != PACKBUF_DTYPE_BOOL)
    type->dtype = dtype;
  if (type->kind == PACKBUF_I_ARROW_ROW && type->size == 2 && dtype.code == PACKBUF_DTYPE_COMPLEX &&
      type->children[0].kind == PACKBUF_I_ARROW_NUMBER && type->children[0].dtype.code == PACKBUF_DTYPE_FLOAT &&
      type->children[0].dtype.bits * 2 == dtype.bits) {
    type->kind = PACKBUF_I_ARROW_COMPLEX;
    type->dtype = dtype;
  }
}

/* ---- the tree ---- */

/* A path and one step more, escaped, in the arena. */
static const char *packbuf_i_longer_path(packbuf_arena *arena, const char *path, packbuf_text name) {
  const size_t before = path ? strlen(path) : 0;
  char *longer = name.size > SIZE_MAX / 4 ? NULL : (char *)packbuf_i_array(arena, before + 2 * name.size + 2, 1);
  size_t size = before;
  if (!longer) return NULL;
  if (before) memcpy(longer, path, before);
  if (path) longer[size++] = '.';
  for (size_t i = 0; i < name.size; i++) {
    if (name.data[i] == '.' || name.data[i] == '[' || name.data[i] == '\\') longer[size++] = '\\';
    longer[size++] = name.data[i];
  }
  longer[size] = 0;
  return longer;
}

static packbuf_status packbuf_i_read_arrow_type(packbuf_i_importer *in, const struct ArrowSchema *schema,
                                                const char *path, int in_list, unsigned depth, packbuf_i_arrow *type);

static packbuf_status packbuf_i_read_children(packbuf_i_importer *in, packbuf_i_arrow *type, int in_list,
                                              unsigned depth) {
  const struct ArrowSchema *schema = type->schema;
  const int fields = type->kind == PACKBUF_I_ARROW_STRUCT;
  type->children = (packbuf_i_arrow *)packbuf_i_array(in->arena, (uint64_t)type->count, sizeof *type->children);
  if (!type->children) return packbuf_i_no_memory(in->error);
  for (int64_t i = 0; i < type->count; i++) {
    const struct ArrowSchema *child =
        type->kind == PACKBUF_I_ARROW_DICTIONARY ? schema->dictionary : schema->children[i];
    const packbuf_text name = packbuf_i_text_of(child && child->name ? child->name : "");
    const char *path = fields ? packbuf_i_longer_path(in->arena, type->path, name) : type->path;
    packbuf_status status;
    if (fields && !path) return packbuf_i_no_memory(in->error);
    status = packbuf_i_read_arrow_type(in, child, path, in_list || !fields, depth + 1, &type->children[i]);
    if (status != PACKBUF_OK) return status;
    type->children[i].name = name;
  }
  return PACKBUF_OK;
}

/* Reads a schema and all below it. in_list: below a list, where a time has no path of its own. */
static packbuf_status packbuf_i_read_arrow_type(packbuf_i_importer *in, const struct ArrowSchema *schema,
                                                const char *path, int in_list, unsigned depth, packbuf_i_arrow *type) {
  int64_t children;
  packbuf_status status;
  memset(type, 0, sizeof *type);
  type->path = path;
  type->schema = schema;
  type->zone = type->serializer = packbuf_i_text_of("");
  if (!schema || !schema->release || !schema->format || schema->n_children < 0 ||
      (schema->n_children > 0 && !schema->children))
    return packbuf_i_refuse_type(in, type, PACKBUF_INVALID_ARGUMENT, "a schema that is released, or lacks a part");
  if (depth > PACKBUF_I_ARROW_DEPTH)
    return packbuf_i_refuse_type(in, type, PACKBUF_DEPTH, packbuf_status_text(PACKBUF_DEPTH));
  if (++in->types > PACKBUF_I_ARROW_TYPES)
    return packbuf_i_refuse_type(in, type, PACKBUF_LIMIT, "a schema of more than 2^20 types");
  status = packbuf_i_read_format(in, type, &children);
  if (status != PACKBUF_OK) return status;
  if (children >= 0 && children != schema->n_children)
    return packbuf_i_refuse_type(in, type, PACKBUF_INVALID_ARGUMENT,
                                 "a schema with another number of children than its format has");
  type->count = schema->n_children;
  if (schema->dictionary) {
    if (type->kind != PACKBUF_I_ARROW_NUMBER || type->dtype.code > PACKBUF_DTYPE_UINT || type->unit)
      return packbuf_i_refuse_type(in, type, PACKBUF_INVALID_ARGUMENT, "a dictionary whose indexes are no integers");
    type->kind = PACKBUF_I_ARROW_DICTIONARY;
    type->count = 1;
  }
  if (type->unit && in_list)
    return packbuf_i_refuse_type(in, type, PACKBUF_UNSUPPORTED_DTYPE,
                                 "times within lists or dictionaries have no place in a packed buffer");
  in->times += type->unit != NULL;
  if (type->count) status = packbuf_i_read_children(in, type, in_list, depth);
  if (status == PACKBUF_OK && type->kind != PACKBUF_I_ARROW_DICTIONARY) packbuf_i_read_metadata(in, type);
  return status;
}
