/* core/infer.c: the codec of a leaf (sections 17 and 18 of the spec): one pass over its cells gathers facts, from
 * which each codec can say whether it accepts them. The same pass refuses what no codec could write (text that is not
 * UTF-8, equal keys, impossible arrays), so that nobody looks again. Also what the public header of this room
 * declares.
 * May use: columns, number promotion, expansion, what json_ragged says it can hold. Must not know: layout, bytes. */

/* What is known of the cells of a leaf. */
typedef struct packbuf_i_facts {
  uint64_t present;
  unsigned kinds; /* set of the kinds of present cells, 1 << packbuf_kind */
  packbuf_i_numbers numbers;
  /* lists */
  uint64_t items;          /* of lists of media and bytes */
  uint8_t not_numbers;     /* a list is no rectangular nest of numbers of one type */
  uint8_t not_media;       /* a list has an item that is neither media nor bytes */
  uint8_t first_item_form; /* BYTES or MEDIA */
  uint8_t item_forms;      /* set, 1 << form */
  /* arrays and nests of numbers */
  packbuf_dtype dtype; /* of the first array */
  uint8_t forms;       /* set of the forms of arrays */
  uint8_t mixed_dtypes, least_rank, most_rank, first_form;
  /* the rest */
  uint8_t not_json, unholdable, bad_text; /* bad_text: only where errors are not wanted */
  uint8_t mixed_serializers;
  const packbuf_opaque *opaque; /* the first */
} packbuf_i_facts;

typedef struct packbuf_i_look {
  packbuf_i_expand *expand;
  const packbuf_i_node *node;
  uint64_t row;
  uint64_t values; /* looked at in the cell: lists that are shared many times over may be far more than memory holds */
  int lenient;     /* compat: text that is not UTF-8 is a fact, not an error */
  packbuf_i_facts facts;
  packbuf_i_keys keys;
} packbuf_i_look;

#define PACKBUF_I_KIND(kind) (1u << (kind))
#define PACKBUF_I_NUMBERS                                                                      \
  (PACKBUF_I_KIND(PACKBUF_BOOL) | PACKBUF_I_KIND(PACKBUF_INT) | PACKBUF_I_KIND(PACKBUF_UINT) | \
   PACKBUF_I_KIND(PACKBUF_FLOAT))
#define PACKBUF_I_JSON_KINDS                                                             \
  (PACKBUF_I_NUMBERS | PACKBUF_I_KIND(PACKBUF_BIGINT) | PACKBUF_I_KIND(PACKBUF_STRING) | \
   PACKBUF_I_KIND(PACKBUF_LIST) | PACKBUF_I_KIND(PACKBUF_DICT))

static packbuf_status packbuf_i_refuse(const packbuf_i_look *look, packbuf_status code, const char *message) {
  return packbuf_i_node_fail(look->expand, look->node, code, message, PACKBUF_NOWHERE, look->row);
}

/* ---- what every value must be ---- */

static packbuf_status packbuf_i_check_text(packbuf_i_look *look, const char *text, size_t size) {
  size_t valid = size && text ? packbuf_i_utf8_valid((const uint8_t *)text, size) : 0;
  if (size && !text) return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "a string has no data");
  if (valid == size) return PACKBUF_OK;
  look->facts.bad_text = 1;
  if (look->lenient) return PACKBUF_OK;
  return packbuf_i_node_fail(look->expand, look->node, PACKBUF_BAD_UTF8,
                             "a string is not UTF-8 (the offset is into the string)", valid, look->row);
}

static packbuf_status packbuf_i_check_array(const packbuf_i_look *look, const packbuf_tensor *tensor) {
  const char *message;
  packbuf_status status;
  if (!tensor) return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "an array is not there");
  status = packbuf_i_array_fault(tensor, &message);
  if (status) return packbuf_i_refuse(look, status, message);
  if (tensor->form == PACKBUF_FORM_SCALAR && tensor->rank)
    return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "scalars have no dimensions");
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_check_media(packbuf_i_look *look, const packbuf_media *media) {
  packbuf_status status = PACKBUF_OK;
  if (!media || (media->size && !media->data))
    return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "media have no data");
  if (media->height < -1 || media->width < -1 || media->channels < -1)
    return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT,
                            "height, width or channels of media is below -1 (not known)");
  if (media->mime) status = packbuf_i_check_text(look, media->mime, media->mime_size);
  if (!status && media->mode) status = packbuf_i_check_text(look, media->mode, media->mode_size);
  return status;
}

static packbuf_status packbuf_i_check_opaque(packbuf_i_look *look, const packbuf_opaque *opaque) {
  if (!opaque || (opaque->size && !opaque->data))
    return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "an opaque value has no data");
  return packbuf_i_check_text(look, opaque->serializer, opaque->serializer_size);
}

static packbuf_status packbuf_i_check_value(packbuf_i_look *look, const packbuf_value *value, unsigned depth_left);

/* The keys and values of a dict that no node was opened for. */
static packbuf_status packbuf_i_check_dict(packbuf_i_look *look, const packbuf_value *dict, unsigned depth_left) {
  int odd = 0, differ = 1;
  if (!depth_left) return packbuf_i_refuse(look, PACKBUF_DEPTH, "a cell is nested more than 512 deep");
  if (packbuf_i_no_items(dict)) return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "a dict has no entries");
  for (size_t i = 0; i < dict->as.dict.count; i++) {
    const packbuf_entry *entry = &dict->as.dict.entries[i];
    packbuf_status status = PACKBUF_OK;
    if (entry->key.kind == PACKBUF_MISSING || entry->key.kind > PACKBUF_BYTES) odd = 1;
    else status = packbuf_i_check_value(look, &entry->key, 0);
    if (!status) status = packbuf_i_check_value(look, &entry->value, depth_left - 1);
    if (status) return status;
  }
  if (odd) look->facts.unholdable = 1;
  else differ = packbuf_i_entries_differ(&look->keys, dict->as.dict.entries, dict->as.dict.count);
  if (differ < 0) return packbuf_i_no_memory(look->expand->error);
  return differ ? PACKBUF_OK : packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "a dict has the same key twice");
}

/* Any value inside a cell; also a cell itself. */
static packbuf_status packbuf_i_check_value(packbuf_i_look *look, const packbuf_value *value, unsigned depth_left) {
  packbuf_status status = PACKBUF_OK;
  if (++look->values >> 30) return packbuf_i_refuse(look, PACKBUF_LIMIT, "a cell has 2^30 values or more");
  switch (value->kind) {
    case PACKBUF_NULL:
    case PACKBUF_BOOL:
    case PACKBUF_INT:
    case PACKBUF_UINT:
    case PACKBUF_FLOAT: return PACKBUF_OK;
    case PACKBUF_BYTES:
      if (value->as.text.data || !value->as.text.size) return PACKBUF_OK;
      return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "bytes have no data");
    case PACKBUF_STRING: return packbuf_i_check_text(look, value->as.text.data, value->as.text.size);
    case PACKBUF_BIGINT:
      if (packbuf_i_is_bigint(value->as.text.data, value->as.text.size)) return PACKBUF_OK;
      return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT,
                              "an integer's text is not a decimal number beyond 64 bits");
    case PACKBUF_MEDIA: return packbuf_i_check_media(look, value->as.media);
    case PACKBUF_OPAQUE: return packbuf_i_check_opaque(look, value->as.opaque);
    case PACKBUF_TENSOR: return packbuf_i_check_array(look, value->as.tensor);
    case PACKBUF_DICT: return packbuf_i_check_dict(look, value, depth_left);
    case PACKBUF_LIST: break;
    case PACKBUF_MISSING:
      return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "a value inside a cell cannot be missing");
    default: return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "a value is of no known kind");
  }
  if (!depth_left) return packbuf_i_refuse(look, PACKBUF_DEPTH, "a cell is nested more than 512 deep");
  if (packbuf_i_no_items(value)) return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "a list has no items");
  for (size_t i = 0; i < value->as.list.count && !status; i++)
    status = packbuf_i_check_value(look, &value->as.list.items[i], depth_left - 1);
  return status;
}

/* ---- gathering facts ---- */

static void packbuf_i_note_array(packbuf_i_facts *facts, const packbuf_tensor *tensor) {
  unsigned form = tensor->form ? tensor->form : (unsigned)PACKBUF_FORM_TENSOR;
  if (!facts->forms) facts->dtype = tensor->dtype;
  else if (!packbuf_i_dtype_equal(facts->dtype, tensor->dtype)) facts->mixed_dtypes = 1;
  facts->forms = (uint8_t)(facts->forms | 1u << form);
}

/* The form and rank of a cell of numbers. */
static void packbuf_i_note_rank(packbuf_i_facts *facts, unsigned form, unsigned rank) {
  if (!facts->first_form) {
    facts->first_form = (uint8_t)form;
    facts->least_rank = (uint8_t)rank;
  }
  if (rank < facts->least_rank) facts->least_rank = (uint8_t)rank;
  if (rank > facts->most_rank) facts->most_rank = (uint8_t)rank;
}

/* Counts the items of a list of media and bytes; 0 when it is none. */
static int packbuf_i_note_items(packbuf_i_facts *facts, const packbuf_value *list) {
  for (size_t i = 0; i < list->as.list.count; i++) {
    unsigned kind = list->as.list.items[i].kind, form = kind == PACKBUF_MEDIA ? PACKBUF_FORM_MEDIA : PACKBUF_FORM_BYTES;
    if (kind != PACKBUF_MEDIA && kind != PACKBUF_BYTES) return 0;
    if (!facts->first_item_form) facts->first_item_form = (uint8_t)form;
    facts->item_forms = (uint8_t)(facts->item_forms | 1u << form);
  }
  facts->items += list->as.list.count;
  return 1;
}

/* A cell that only json_ragged or msgpack_ragged could take. While all are JSON, json_ragged's own check is the only
 * look at them. */
static packbuf_status packbuf_i_look_nested(packbuf_i_look *look, const packbuf_value *cell) {
  if (!look->facts.not_json) {
    packbuf_status status = packbuf_i_json_can(cell, PACKBUF_I_DEPTH, look->expand->arena, NULL);
    if (status == PACKBUF_OK) return PACKBUF_OK;
    if (status == PACKBUF_OUT_OF_MEMORY) return packbuf_i_no_memory(look->expand->error);
    if (status == PACKBUF_LIMIT) return packbuf_i_refuse(look, PACKBUF_LIMIT, "a cell has 2^30 values or more");
    look->facts.not_json = 1;
  }
  look->values = 0;
  return packbuf_i_check_value(look, cell, PACKBUF_I_DEPTH);
}

static packbuf_status packbuf_i_look_list(packbuf_i_look *look, const packbuf_value *cell) {
  packbuf_i_facts *facts = &look->facts;
  unsigned rank = 0;
  if (packbuf_i_no_items(cell)) return packbuf_i_refuse(look, PACKBUF_INVALID_ARGUMENT, "a list has no items");
  if (!facts->not_numbers) {
    rank = packbuf_i_count_list(&facts->numbers, cell);
    if (rank) packbuf_i_note_rank(facts, PACKBUF_FORM_LIST, rank);
    else facts->not_numbers = 1;
  }
  if (!facts->not_media && !packbuf_i_note_items(facts, cell)) facts->not_media = 1;
  if (rank) return PACKBUF_OK; /* nothing in it but numbers */
  return packbuf_i_look_nested(look, cell);
}

/* Adds a present cell to the facts. */
static packbuf_status packbuf_i_look_cell(packbuf_i_look *look, const packbuf_value *cell) {
  packbuf_i_facts *facts = &look->facts;
  packbuf_status status;
  facts->present++;
  if (cell->kind <= PACKBUF_DICT) facts->kinds |= PACKBUF_I_KIND(cell->kind);
  switch (cell->kind) {
    case PACKBUF_BOOL:
    case PACKBUF_INT:
    case PACKBUF_UINT:
    case PACKBUF_FLOAT: packbuf_i_count_numbers(&facts->numbers, cell, 1); return PACKBUF_OK;
    case PACKBUF_STRING: return packbuf_i_check_text(look, cell->as.text.data, cell->as.text.size);
    case PACKBUF_OPAQUE: {
      const packbuf_opaque *opaque = cell->as.opaque;
      status = packbuf_i_check_opaque(look, opaque);
      if (status) return status;
      if (!facts->opaque) facts->opaque = opaque;
      else if (!packbuf_i_same_bytes(facts->opaque->serializer, facts->opaque->serializer_size, opaque->serializer,
                                     opaque->serializer_size))
        facts->mixed_serializers = 1;
      return PACKBUF_OK;
    }
    case PACKBUF_TENSOR:
      status = packbuf_i_check_array(look, cell->as.tensor);
      if (status) return status;
      packbuf_i_note_array(facts, cell->as.tensor);
      packbuf_i_note_rank(facts, cell->as.tensor->form ? cell->as.tensor->form : (unsigned)PACKBUF_FORM_TENSOR,
                          cell->as.tensor->rank);
      return PACKBUF_OK;
    case PACKBUF_LIST: return packbuf_i_look_list(look, cell);
    case PACKBUF_DICT: return packbuf_i_look_nested(look, cell);
    default: look->values = 0; return packbuf_i_check_value(look, cell, 0);
  }
}

static void packbuf_i_look_start(packbuf_i_look *look, packbuf_i_expand *expand, const packbuf_i_node *node) {
  look->expand = expand;
  look->node = node;
  look->row = 0;
  look->values = 0;
  look->lenient = 0;
  memset(&look->facts, 0, sizeof look->facts);
  packbuf_i_keys_init(&look->keys, &packbuf_i_entry_source, NULL, expand->arena, UINT64_MAX);
}

/* ---- deciding ---- */

/* Whether arrays, lists of numbers or both have one dtype; it is stored in *dtype. */
static int packbuf_i_accepts_ragged(const packbuf_i_facts *facts, packbuf_dtype *dtype) {
  unsigned arrays = facts->kinds & PACKBUF_I_KIND(PACKBUF_TENSOR), lists = facts->kinds & PACKBUF_I_KIND(PACKBUF_LIST);
  if (facts->kinds != (arrays | lists) || facts->not_numbers || (facts->forms & ~PACKBUF_I_KIND(PACKBUF_FORM_ARRAY)))
    return 0;
  if (!arrays) return packbuf_i_join_numbers(&facts->numbers, dtype);
  *dtype = facts->dtype;
  return !facts->mixed_dtypes && packbuf_i_arrays_hold(facts->dtype, &facts->numbers);
}

static int packbuf_i_accepts_ndarray(const packbuf_i_facts *facts, packbuf_dtype *dtype, int by_schema) {
  if (facts->kinds && !(facts->kinds & ~PACKBUF_I_NUMBERS)) return packbuf_i_join_numbers(&facts->numbers, dtype);
  *dtype = facts->dtype;
  if (facts->kinds != PACKBUF_I_KIND(PACKBUF_TENSOR) || facts->mixed_dtypes || facts->most_rank) return 0;
  if (facts->numbers.asked.bits && !packbuf_i_dtype_equal(facts->numbers.asked, facts->dtype)) return 0;
  return by_schema || facts->forms == PACKBUF_I_KIND(PACKBUF_FORM_SCALAR);
}

/* Whether a codec takes all cells seen so far. by_schema: it was asked for, and so takes what inference would leave to
 * another. */
static int packbuf_i_accepts(const packbuf_i_facts *facts, packbuf_codec codec, packbuf_dtype *dtype, int by_schema) {
  *dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  switch (codec) {
    case PACKBUF_CODEC_NULL: memset(dtype, 0, sizeof *dtype); return facts->present == 0;
    case PACKBUF_CODEC_NDARRAY: return packbuf_i_accepts_ndarray(facts, dtype, by_schema);
    case PACKBUF_CODEC_RAGGED_TENSOR:
      *dtype = facts->dtype;
      return facts->kinds == PACKBUF_I_KIND(PACKBUF_TENSOR) && facts->forms == PACKBUF_I_KIND(PACKBUF_FORM_TENSOR) &&
             !facts->mixed_dtypes &&
             (!facts->numbers.asked.bits || packbuf_i_dtype_equal(facts->numbers.asked, facts->dtype));
    case PACKBUF_CODEC_TYPED_RAGGED: return packbuf_i_accepts_ragged(facts, dtype);
    case PACKBUF_CODEC_BYTES_RAGGED: return facts->kinds == PACKBUF_I_KIND(PACKBUF_BYTES);
    case PACKBUF_CODEC_MEDIA_BYTES: return facts->kinds == PACKBUF_I_KIND(PACKBUF_MEDIA);
    case PACKBUF_CODEC_MEDIA_LIST_RAGGED:
      return facts->kinds == PACKBUF_I_KIND(PACKBUF_LIST) && !facts->not_media && (by_schema || facts->items);
    case PACKBUF_CODEC_UTF8_RAGGED: return facts->kinds == PACKBUF_I_KIND(PACKBUF_STRING);
    case PACKBUF_CODEC_JSON_RAGGED: return !(facts->kinds & ~PACKBUF_I_JSON_KINDS) && !facts->not_json;
    case PACKBUF_CODEC_OPAQUE_RAGGED:
      return facts->kinds == PACKBUF_I_KIND(PACKBUF_OPAQUE) && !facts->mixed_serializers;
    case PACKBUF_CODEC_MSGPACK_RAGGED: return !facts->unholdable;
    default: return 0;
  }
}

/* The rest of what json_ragged asks: no NaN with a payload among the cells that were only looked at as numbers, and a
 * sample that is not too large. */
static packbuf_status packbuf_i_accepts_json(const packbuf_i_look *look, int *accepts) {
  const packbuf_i_node *node = look->node;
  packbuf_i_sink sink = {NULL, 0, 0, PACKBUF_JSON_SAMPLE_BYTES};
  packbuf_status status = PACKBUF_OK;
  uint64_t sampled = 0;
  int floats = (look->facts.numbers.types & PACKBUF_I_FLOATS) != 0;
  *accepts = 0;
  for (uint64_t row = packbuf_i_next_cell(&node->cells, 0);
       row < node->rows && (floats || sampled < PACKBUF_JSON_SAMPLE_ROWS);
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (packbuf_i_absent(cell)) continue;
    if (floats && (cell->kind == PACKBUF_FLOAT || cell->kind == PACKBUF_LIST))
      status = packbuf_i_json_can(cell, PACKBUF_I_DEPTH, look->expand->arena, NULL);
    if (!status && sampled++ < PACKBUF_JSON_SAMPLE_ROWS)
      status = packbuf_i_json_encode(cell, PACKBUF_I_DEPTH, &sink, NULL);
    if (status == PACKBUF_OUT_OF_MEMORY) return packbuf_i_no_memory(look->expand->error);
    if (status != PACKBUF_OK || sink.size > PACKBUF_JSON_SAMPLE_BYTES) return PACKBUF_OK;
  }
  *accepts = 1;
  return PACKBUF_OK;
}

static const char *packbuf_i_reason(packbuf_codec codec) {
  switch (codec) {
    case PACKBUF_CODEC_NULL: return "no cell has a value";
    case PACKBUF_CODEC_NDARRAY: return "all cells are numbers, or scalars of one dtype";
    case PACKBUF_CODEC_RAGGED_TENSOR: return "all cells are tensors of one dtype";
    case PACKBUF_CODEC_TYPED_RAGGED: return "all cells are arrays or lists of numbers with a common dtype";
    case PACKBUF_CODEC_BYTES_RAGGED: return "all cells are bytes";
    case PACKBUF_CODEC_MEDIA_BYTES: return "all cells are media";
    case PACKBUF_CODEC_MEDIA_LIST_RAGGED: return "all cells are lists of media or bytes";
    case PACKBUF_CODEC_UTF8_RAGGED: return "all cells are strings";
    case PACKBUF_CODEC_JSON_RAGGED: return "all cells can be held as JSON";
    case PACKBUF_CODEC_OPAQUE_RAGGED: return "all cells are bytes of one serializer";
    default: return "no other codec holds all cells";
  }
}

/* Writes the decision into the node. */
static packbuf_status packbuf_i_settle(packbuf_i_look *look, packbuf_i_node *node, packbuf_codec codec,
                                       packbuf_dtype dtype) {
  const packbuf_i_facts *facts = &look->facts;
  unsigned natural = packbuf_i_natural_type(dtype), forms = facts->forms;
  node->codec = (uint8_t)codec;
  node->dtype = dtype;
  node->accepted = 1;
  node->reason = packbuf_i_reason(codec);
  if (facts->kinds & PACKBUF_I_KIND(PACKBUF_LIST)) forms |= PACKBUF_I_KIND(PACKBUF_FORM_LIST);
  if (packbuf_i_numeric(codec)) {
    node->form = facts->first_form;
    node->typed = (facts->numbers.types & ~(1u << natural)) != 0 || (forms & (forms - 1)) != 0;
    if (!facts->first_form && codec != PACKBUF_CODEC_NDARRAY) /* a schema's codec without a cell */
      node->form = codec == PACKBUF_CODEC_RAGGED_TENSOR ? PACKBUF_FORM_TENSOR : PACKBUF_FORM_LIST;
  }
  if (codec == PACKBUF_CODEC_RAGGED_TENSOR || codec == PACKBUF_CODEC_TYPED_RAGGED) {
    node->rank = facts->most_rank;
    node->mixed_ranks = facts->least_rank != facts->most_rank;
  }
  if (codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) {
    node->form = facts->first_item_form ? facts->first_item_form : (uint8_t)PACKBUF_FORM_BYTES;
    node->typed = (facts->item_forms & (facts->item_forms - 1)) != 0;
  }
  if (codec == PACKBUF_CODEC_OPAQUE_RAGGED) {
    if (node->logical_type || node->parameter)
      return packbuf_i_node_fail(look->expand, node, PACKBUF_UNENCODABLE, "opaque cells have no logical type",
                                 PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    node->parameter = facts->opaque ? facts->opaque->serializer : NULL;
    node->parameter_size = facts->opaque ? facts->opaque->serializer_size : 0;
  }
  return PACKBUF_OK;
}

/* Adds a text that needs no closer look; 0: it is none. */
static int packbuf_i_look_ascii(packbuf_i_facts *facts, const packbuf_value *cell) {
  size_t size;
  if (cell->kind != PACKBUF_STRING) return 0;
  size = cell->as.text.size;
  if (size && !cell->as.text.data) return 0;
  if (!packbuf_i_utf8_short_ascii((const uint8_t *)cell->as.text.data, size)) return 0;
  facts->kinds |= PACKBUF_I_KIND(PACKBUF_STRING);
  facts->present++;
  return 1;
}

static packbuf_status packbuf_i_look_all(packbuf_i_look *look, packbuf_i_node *node) {
  const packbuf_i_rows *cells = &node->cells;
  packbuf_status status = PACKBUF_OK;
  packbuf_i_count_sparse(node);
  for (look->row = packbuf_i_next_cell(cells, 0); look->row < node->rows && !status;
       look->row = packbuf_i_next_cell(cells, look->row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(cells, look->row);
    if (cells->pointers && !cells->sparse && node->rows - look->row > 16)
      PACKBUF_I_PREFETCH(cells->pointers[look->row + 16]);
    if (packbuf_i_count_absent(node, cell) || packbuf_i_look_ascii(&look->facts, cell)) continue;
    status = packbuf_i_look_cell(look, cell);
  }
  return status;
}

/* The first codec of section 17 that accepts all cells. */
static packbuf_status packbuf_i_choose(packbuf_i_look *look, packbuf_i_node *node) {
  static const uint8_t order[] = {
      PACKBUF_CODEC_NULL,          PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_CODEC_MEDIA_LIST_RAGGED,
      PACKBUF_CODEC_TYPED_RAGGED,  PACKBUF_CODEC_NDARRAY,       PACKBUF_CODEC_BYTES_RAGGED,
      PACKBUF_CODEC_MEDIA_BYTES,   PACKBUF_CODEC_UTF8_RAGGED,   PACKBUF_CODEC_JSON_RAGGED,
      PACKBUF_CODEC_OPAQUE_RAGGED, PACKBUF_CODEC_MSGPACK_RAGGED};
  packbuf_dtype dtype;
  for (size_t i = 0; i < sizeof order; i++) {
    packbuf_codec codec = (packbuf_codec)order[i];
    if (!packbuf_i_accepts(&look->facts, codec, &dtype, 0)) continue;
    if (codec == PACKBUF_CODEC_JSON_RAGGED) {
      int accepts;
      packbuf_status status = packbuf_i_accepts_json(look, &accepts);
      if (status) return status;
      if (!accepts) continue;
    }
    return packbuf_i_settle(look, node, codec, dtype);
  }
  node->codec = PACKBUF_CODEC_MSGPACK_RAGGED;
  node->dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  node->reason = "no codec holds a key that is no null, bool, integer, float, string or bytes";
  return PACKBUF_OK;
}

/* ---- what a schema asks for ---- */

/* The codec of numbers that a cell belongs to, when the schema names a dtype only. */
static packbuf_codec packbuf_i_numeric_codec(const packbuf_value *cell) {
  if (packbuf_i_number_type(cell->kind)) return PACKBUF_CODEC_NDARRAY;
  if (cell->kind == PACKBUF_LIST) return PACKBUF_CODEC_TYPED_RAGGED;
  if (cell->kind != PACKBUF_TENSOR) return PACKBUF_CODEC_AUTO;
  if (!cell->as.tensor) return PACKBUF_CODEC_RAGGED_TENSOR; /* refused when it is looked at */
  if (cell->as.tensor->form == PACKBUF_FORM_ARRAY) return PACKBUF_CODEC_TYPED_RAGGED;
  return cell->as.tensor->form == PACKBUF_FORM_SCALAR ? PACKBUF_CODEC_NDARRAY : PACKBUF_CODEC_RAGGED_TENSOR;
}

/* Checks the cells one by one against the codec, so that the error names the first row that does not fit. */
static packbuf_status packbuf_i_follow(packbuf_i_look *look, packbuf_i_node *node, packbuf_codec codec,
                                       int *empty_lists) {
  packbuf_status status = PACKBUF_OK;
  packbuf_dtype dtype;
  int fits;
  for (; look->row < node->rows; look->row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, look->row);
    if (packbuf_i_count_absent(node, cell)) continue;
    status = packbuf_i_look_cell(look, cell);
    if (status) return status;
    fits = packbuf_i_accepts(&look->facts, codec, &dtype, 1);
    if (codec == PACKBUF_CODEC_JSON_RAGGED && fits) {
      status = packbuf_i_json_can(cell, PACKBUF_I_DEPTH, look->expand->arena, NULL);
      if (status == PACKBUF_OUT_OF_MEMORY) return packbuf_i_no_memory(look->expand->error);
      fits = status == PACKBUF_OK;
    }
    *empty_lists = !fits && codec == PACKBUF_CODEC_TYPED_RAGGED && look->facts.kinds == PACKBUF_I_KIND(PACKBUF_LIST) &&
                   !look->facts.not_numbers && !look->facts.numbers.types;
    if (!fits && !*empty_lists)
      return packbuf_i_refuse(look, PACKBUF_UNENCODABLE,
                              "the cell does not fit the codec or dtype that the schema asks for");
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_obey(packbuf_i_look *look, packbuf_i_node *node, const packbuf_schema *schema) {
  packbuf_codec codec = schema->codec;
  packbuf_status status;
  packbuf_dtype dtype = schema->dtype;
  int empty_lists = 0;
  if (!packbuf_codec_name(codec) && codec != PACKBUF_CODEC_AUTO)
    return packbuf_i_node_fail(look->expand, node, PACKBUF_INVALID_ARGUMENT, "the schema's codec is not known",
                               PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (dtype.bits && !packbuf_i_dtype_known(dtype))
    return packbuf_i_node_fail(look->expand, node, PACKBUF_UNSUPPORTED_DTYPE, "the schema's dtype is not known",
                               PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  for (uint64_t row = 0; codec == PACKBUF_CODEC_AUTO && row < node->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (packbuf_i_absent(cell)) continue;
    codec = packbuf_i_numeric_codec(cell);
    look->row = row;
    if (!codec)
      return packbuf_i_refuse(look, PACKBUF_UNENCODABLE,
                              "the schema asks for a dtype, but the cell is no number, array or list");
  }
  look->row = 0;
  if (packbuf_i_numeric(codec)) look->facts.numbers.asked = dtype;
  else if (codec != PACKBUF_CODEC_AUTO && dtype.bits &&
           !packbuf_i_dtype_equal(dtype, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8)))
    return packbuf_i_node_fail(look->expand, node, PACKBUF_UNENCODABLE,
                               "the codec that the schema asks for has no such dtype", PACKBUF_NOWHERE,
                               PACKBUF_NOWHERE);
  status = packbuf_i_follow(look, node, codec, &empty_lists);
  if (status) return status;
  if (empty_lists)
    return packbuf_i_node_fail(look->expand, node, PACKBUF_UNENCODABLE, "no list has a number: name a dtype",
                               PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (look->facts.present == 0) { /* the codec that was asked for, when it can be told */
    if (codec == PACKBUF_CODEC_AUTO || (packbuf_i_numeric(codec) && !dtype.bits)) codec = PACKBUF_CODEC_NULL;
    if (!packbuf_i_numeric(codec)) packbuf_i_accepts(&look->facts, codec, &dtype, 1);
  } else {
    packbuf_i_accepts(&look->facts, codec, &dtype, 1);
  }
  status = packbuf_i_settle(look, node, codec, dtype);
  if (schema->codec || dtype.bits) node->reason = "asked for by the schema";
  return status;
}

static packbuf_status packbuf_i_infer_leaf(packbuf_i_expand *expand, packbuf_i_node *node,
                                           const packbuf_schema *schema) {
  packbuf_i_look look;
  packbuf_status status;
  packbuf_i_look_start(&look, expand, node);
  if (schema && (schema->codec != PACKBUF_CODEC_AUTO || schema->dtype.bits)) {
    status = packbuf_i_obey(&look, node, schema);
  } else {
    status = packbuf_i_look_all(&look, node);
    if (!status) status = packbuf_i_choose(&look, node);
  }
  packbuf_i_keys_free(&look.keys);
  return status;
}

/* ---- public ---- */

static const packbuf_i_node *packbuf_i_after(const packbuf_i_node *node) {
  if (node->first_child) return node->first_child;
  while (node && !node->next) node = node->parent;
  return node ? node->next : NULL;
}

/* Bitmap of the rows that are dicts or lists, and the lists' lengths. */
static int packbuf_i_show_rows(const packbuf_i_node *node, packbuf_arena *arena, packbuf_inferred *out) {
  size_t bytes = (size_t)(node->rows / 8 + 1);
  uint8_t *present = node->rows / 8 < SIZE_MAX ? (uint8_t *)packbuf_arena_alloc(arena, bytes, 1) : NULL;
  uint64_t *lengths = NULL;
  if (!present) return 0;
  memset(present, 0, bytes);
  if (node->kind == PACKBUF_NODE_LIST) {
    lengths =
        node->rows > SIZE_MAX / 8 - 1 ? NULL : (uint64_t *)packbuf_arena_alloc(arena, (size_t)(node->rows + 1) * 8, 8);
    if (!lengths) return 0;
  }
  for (uint64_t row = 0; row < node->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    int there = !packbuf_i_absent(cell);
    present[row / 8] = (uint8_t)(present[row / 8] | (unsigned)there << (row & 7));
    if (lengths) lengths[row] = there ? cell->as.list.count : 0;
  }
  out->present = present;
  out->lengths = lengths;
  return 1;
}

/* The cells by which packbuf_i_accepts_json decided. 0 without memory. */
static int packbuf_i_show_sample(const packbuf_i_node *node, packbuf_arena *arena, packbuf_inferred *out) {
  const uint64_t present = node->rows - node->nulls - node->missing;
  const uint64_t most = present < PACKBUF_JSON_SAMPLE_ROWS ? present : PACKBUF_JSON_SAMPLE_ROWS;
  const packbuf_value **sample = (const packbuf_value **)packbuf_i_array(arena, most, sizeof *sample);
  if (!sample) return 0;
  for (uint64_t row = packbuf_i_next_cell(&node->cells, 0); row < node->rows && out->sample_count < most;
       row = packbuf_i_next_cell(&node->cells, row + 1)) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (!packbuf_i_absent(cell)) sample[out->sample_count++] = cell;
  }
  out->sample = sample;
  return 1;
}

static int packbuf_i_show_node(const packbuf_i_node *node, packbuf_arena *arena, packbuf_inferred *out) {
  memset(out, 0, sizeof *out);
  out->path = packbuf_i_node_path(node, arena);
  if (!out->path) return 0;
  out->kind = (packbuf_node_kind)node->kind;
  out->parent = node->parent ? node->parent->index : UINT32_MAX;
  for (const packbuf_i_node *child = node->first_child; child; child = child->next) out->child_count++;
  out->accepted = node->accepted;
  out->codec = (packbuf_codec)node->codec;
  if (packbuf_i_numeric(out->codec)) out->dtype = node->dtype;
  out->rank = node->rank;
  out->form = node->form;
  out->typed = node->typed;
  out->reason = node->reason;
  out->rows = node->rows;
  out->nulls = node->nulls;
  out->missing = node->missing;
  if (out->codec == PACKBUF_CODEC_JSON_RAGGED) return packbuf_i_show_sample(node, arena, out);
  return node->kind == PACKBUF_LEAF || packbuf_i_show_rows(node, arena, out);
}

PACKBUF_API packbuf_status packbuf_infer(const packbuf_value *values, uint64_t count, const char *root,
                                         packbuf_mode mode, packbuf_arena *arena, packbuf_inference *inference,
                                         packbuf_error *error) {
  packbuf_i_expand expand;
  packbuf_i_node top;
  packbuf_status status;
  uint32_t at = 0;
  if (!arena || !inference || !root || (count && !values))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "values, a root, an arena and a result must be given",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  memset(&expand, 0, sizeof expand);
  memset(&top, 0, sizeof top);
  expand.arena = arena;
  expand.mode = mode;
  expand.nodes = 1;
  expand.error = error;
  top.name = root;
  top.name_size = strlen(root);
  top.rows = top.cells.count = count;
  top.cells.values = values;
  status = packbuf_i_expand_node(&expand, &top, 0);
  if (status) return status;
  inference->count = expand.nodes;
  inference->nodes = (packbuf_inferred *)packbuf_arena_alloc(arena, expand.nodes * sizeof *inference->nodes, 8);
  if (!inference->nodes) return packbuf_i_no_memory(error);
  for (packbuf_i_node *node = &top; node; node = (packbuf_i_node *)packbuf_i_after(node)) {
    node->index = at;
    if (!packbuf_i_show_node(node, arena, &inference->nodes[at++])) return packbuf_i_no_memory(error);
  }
  return PACKBUF_OK;
}

static const char *const packbuf_i_codec_names[] = {
    NULL,           "null",         "ndarray",        "ragged_tensor",
    "typed_ragged", "bytes_ragged", "media_bytes",    "media_list_ragged",
    "utf8_ragged",  "json_ragged",  "msgpack_ragged", "opaque_ragged"};

PACKBUF_API const char *packbuf_codec_name(packbuf_codec codec) {
  return (unsigned)codec < sizeof packbuf_i_codec_names / sizeof *packbuf_i_codec_names ? packbuf_i_codec_names[codec]
                                                                                        : NULL;
}

PACKBUF_API int packbuf_codec_parse(const char *name, packbuf_codec *codec) {
  for (unsigned i = 1; i < sizeof packbuf_i_codec_names / sizeof *packbuf_i_codec_names; i++) {
    if (strcmp(packbuf_i_codec_names[i], name) != 0) continue;
    *codec = (packbuf_codec)i;
    return 1;
  }
  return 0;
}
