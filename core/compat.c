/* core/compat.c: compat mode: what Mooncake's merged structured codec (PR 2521, numpy 2) would choose for a leaf, with
 * its losses, for comparison only. A torch tensor is a value of form TENSOR, an ndarray one of form ARRAY, a numpy
 * scalar one of form SCALAR, a PIL image media; what Python alone can hold is opaque. "Rejected as pickle" is accepted
 * 0 with codec opaque_ragged.
 * May use: columns, leaf inference, what json_ragged writes. Must not know: layout, bytes. */

#define PACKBUF_I_NUMPY_DIMS 64

/* ---- numpy's promotion ---- */

static int packbuf_i_numpy_known(packbuf_dtype dtype) {
  return dtype.code <= PACKBUF_DTYPE_FLOAT || dtype.code == PACKBUF_DTYPE_COMPLEX || dtype.code == PACKBUF_DTYPE_BOOL;
}

static packbuf_dtype packbuf_i_numpy_float(packbuf_dtype real, packbuf_dtype integer) {
  unsigned needs = integer.bits == 8 ? 16 : integer.bits == 16 ? 32 : 64;
  return packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, real.bits > needs ? real.bits : needs);
}

/* np.promote_types, for dtypes that numpy has. */
static packbuf_dtype packbuf_i_numpy_join(packbuf_dtype a, packbuf_dtype b) {
  packbuf_dtype swap = a;
  if (a.code == PACKBUF_DTYPE_BOOL || packbuf_i_dtype_equal(a, b)) return b;
  if (b.code == PACKBUF_DTYPE_BOOL) return a;
  if (a.code > b.code) {
    a = b;
    b = swap;
  }
  if (b.code == PACKBUF_DTYPE_COMPLEX) {
    packbuf_dtype real = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, b.bits / 2u);
    if (a.code == PACKBUF_DTYPE_COMPLEX) return a.bits > b.bits ? a : b;
    real = packbuf_i_numpy_join(a, real);
    return packbuf_dtype_of(PACKBUF_DTYPE_COMPLEX, real.bits * 2u);
  }
  if (a.code == b.code) return a.bits > b.bits ? a : b;
  if (b.code == PACKBUF_DTYPE_FLOAT) return packbuf_i_numpy_float(b, a);
  if (a.bits > b.bits) return a; /* int with uint */
  return b.bits == 64 ? packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64) : packbuf_dtype_of(PACKBUF_DTYPE_INT, b.bits * 2u);
}

/* A dtype that grows by joining; bits 0: nothing joined yet. */
static void packbuf_i_numpy_add(packbuf_dtype *sum, packbuf_dtype dtype) {
  *sum = sum->bits ? packbuf_i_numpy_join(*sum, dtype) : dtype;
}

/* The dtype np.asarray gives a plain number; bits 0: object, or no number. */
static packbuf_dtype packbuf_i_numpy_of(const packbuf_value *value) {
  switch (value->kind) {
    case PACKBUF_BOOL: return packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8);
    case PACKBUF_INT: return packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
    case PACKBUF_UINT: return packbuf_dtype_of(value->as.u >> 63 ? PACKBUF_DTYPE_UINT : PACKBUF_DTYPE_INT, 64);
    case PACKBUF_FLOAT: return packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64);
    case PACKBUF_TENSOR:
      if (packbuf_i_numpy_known(value->as.tensor->dtype)) return value->as.tensor->dtype;
      return packbuf_dtype_of(PACKBUF_DTYPE_INT, 0);
    default: return packbuf_dtype_of(PACKBUF_DTYPE_INT, 0);
  }
}

/* ---- np.asarray of a nested list ---- */

typedef struct packbuf_i_numpy_array {
  uint64_t shape[PACKBUF_I_NUMPY_DIMS + PACKBUF_MAX_RANK];
  unsigned rank;
  packbuf_dtype dtype;
} packbuf_i_numpy_array;

static int packbuf_i_numpy_nest(packbuf_i_numpy_array *array, const packbuf_value *value, unsigned level) {
  if (value->kind == PACKBUF_LIST) {
    if (level >= array->rank || value->as.list.count != array->shape[level]) return 0;
    for (size_t i = 0; i < value->as.list.count; i++)
      if (!packbuf_i_numpy_nest(array, &value->as.list.items[i], level + 1)) return 0;
    return 1;
  }
  if (packbuf_i_numpy_of(value).bits == 0) return 0;
  if (value->kind == PACKBUF_TENSOR) {
    const packbuf_tensor *tensor = value->as.tensor;
    if (tensor->rank != array->rank - level) return 0;
    for (unsigned d = 0; d < tensor->rank; d++)
      if (tensor->shape[d] != array->shape[level + d]) return 0;
  } else if (level != array->rank) {
    return 0;
  }
  packbuf_i_numpy_add(&array->dtype, packbuf_i_numpy_of(value));
  return 1;
}

/* 0: not rectangular, or something in it is no number. */
static int packbuf_i_numpy_asarray(packbuf_i_numpy_array *array, const packbuf_value *list) {
  const packbuf_value *value = list;
  array->rank = 0;
  memset(&array->dtype, 0, sizeof array->dtype);
  while (value->kind == PACKBUF_LIST && array->rank < PACKBUF_I_NUMPY_DIMS) {
    array->shape[array->rank++] = value->as.list.count;
    if (!value->as.list.count) break;
    value = value->as.list.items;
  }
  if (value->kind == PACKBUF_TENSOR)
    for (unsigned d = 0; d < value->as.tensor->rank; d++) array->shape[array->rank++] = value->as.tensor->shape[d];
  if (array->rank > PACKBUF_I_NUMPY_DIMS || !packbuf_i_numpy_nest(array, list, 0)) return 0;
  if (!array->dtype.bits) array->dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64); /* nothing in it */
  return 1;
}

/* ---- what each codec takes (rules 10 to 48 of the comparison) ---- */

static int packbuf_i_compat_tensors(const packbuf_i_facts *facts) {
  return facts->kinds == PACKBUF_I_KIND(PACKBUF_TENSOR) && facts->forms == PACKBUF_I_KIND(PACKBUF_FORM_TENSOR) &&
         !facts->mixed_dtypes && facts->least_rank == facts->most_rank;
}

static int packbuf_i_compat_media_lists(const packbuf_i_node *node, const packbuf_i_facts *facts) {
  if (facts->kinds != PACKBUF_I_KIND(PACKBUF_LIST) || facts->not_media) return 0;
  for (uint64_t row = 0; row < node->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (cell->kind == PACKBUF_LIST && cell->as.list.count == 0) return 0;
  }
  return 1;
}

static int packbuf_i_compat_typed(packbuf_i_node *node, const packbuf_i_facts *facts, packbuf_dtype *dtype) {
  packbuf_i_numpy_array array;
  memset(dtype, 0, sizeof *dtype);
  if (facts->kinds & ~(PACKBUF_I_KIND(PACKBUF_LIST) | PACKBUF_I_KIND(PACKBUF_TENSOR)) ||
      (facts->forms & ~PACKBUF_I_KIND(PACKBUF_FORM_ARRAY)))
    return 0;
  for (uint64_t row = 0; row < node->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (packbuf_i_absent(cell)) continue;
    if (cell->kind == PACKBUF_LIST) {
      if (!packbuf_i_numpy_asarray(&array, cell)) return 0;
    } else {
      array.dtype = packbuf_i_numpy_of(cell);
      array.rank = cell->as.tensor->rank;
    }
    if (!array.dtype.bits || array.dtype.code == PACKBUF_DTYPE_BOOL) return 0;
    packbuf_i_numpy_add(dtype, array.dtype);
    if (array.rank > node->rank) node->rank = (uint8_t)array.rank;
  }
  return 1;
}

/* np.result_type of all cells: python's own ints and floats are weak, unless a single cell is all there is. */
static int packbuf_i_compat_scalars(const packbuf_i_node *node, const packbuf_i_facts *facts, packbuf_dtype *dtype) {
  int ints = 0, floats = 0;
  memset(dtype, 0, sizeof *dtype);
  if (facts->forms & ~PACKBUF_I_KIND(PACKBUF_FORM_SCALAR)) return 0;
  if (facts->kinds & ~(PACKBUF_I_NUMBERS | PACKBUF_I_KIND(PACKBUF_BIGINT) | PACKBUF_I_KIND(PACKBUF_TENSOR))) return 0;
  for (uint64_t row = 0; row < node->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    packbuf_dtype own = packbuf_i_numpy_of(cell);
    if (packbuf_i_absent(cell)) continue;
    if (cell->kind == PACKBUF_TENSOR && (!own.bits || own.code == PACKBUF_DTYPE_BOOL))
      return 0; /* np.bool_ is no np.number */
    if (facts->present == 1) return *dtype = own, own.bits != 0;
    if (cell->kind == PACKBUF_FLOAT) floats = 1;
    else if (cell->kind == PACKBUF_TENSOR || cell->kind == PACKBUF_BOOL) packbuf_i_numpy_add(dtype, own);
    else ints = 1;
  }
  if (floats && (dtype->bits == 0 || packbuf_i_natural_type(*dtype) == PACKBUF_I_NUMBER_BOOL ||
                 packbuf_i_natural_type(*dtype) == PACKBUF_I_NUMBER_INT))
    *dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64);
  else if (ints && (dtype->bits == 0 || dtype->code == PACKBUF_DTYPE_BOOL))
    *dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  return 1;
}

/* Adds the length of what json.dumps would write; 0 when it would raise. Keys that are numbers, bools or None become
 * strings. */
static int packbuf_i_compat_json(const packbuf_value *value, uint64_t *size) {
  packbuf_i_sink sink = {NULL, 0, 0, 0};
  if (value->kind == PACKBUF_LIST) {
    *size += value->as.list.count ? 1 + value->as.list.count : 2; /* brackets and commas */
    for (size_t i = 0; i < value->as.list.count; i++)
      if (!packbuf_i_compat_json(&value->as.list.items[i], size)) return 0;
    return 1;
  }
  if (value->kind == PACKBUF_DICT) {
    *size += value->as.dict.count ? 1 + 2 * value->as.dict.count : 2; /* and colons */
    for (size_t i = 0; i < value->as.dict.count; i++) {
      const packbuf_entry *entry = &value->as.dict.entries[i];
      if (entry->key.kind != PACKBUF_STRING) *size += 2;
      if (entry->key.kind > PACKBUF_STRING || !packbuf_i_compat_json(&entry->key, size) ||
          !packbuf_i_compat_json(&entry->value, size))
        return 0;
    }
    return 1;
  }
  if (value->kind == PACKBUF_FLOAT && value->as.f != value->as.f) return *size += 3, 1;
  if (value->kind == PACKBUF_STRING && value->as.text.size &&
      packbuf_i_utf8_valid((const uint8_t *)value->as.text.data, value->as.text.size) != value->as.text.size)
    return 0;
  if (value->kind == PACKBUF_TENSOR && value->as.tensor->form == PACKBUF_FORM_SCALAR && !value->as.tensor->device &&
      packbuf_i_dtype_equal(value->as.tensor->dtype,
                            packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64))) { /* np.float64 is a float */
    packbuf_value number = packbuf_float(0);
    memcpy(&number.as.f, value->as.tensor->data, 8);
    return packbuf_i_compat_json(&number, size);
  }
  if (value->kind > PACKBUF_STRING || value->kind == PACKBUF_MISSING ||
      packbuf_i_json_encode(value, 1, &sink, NULL) != PACKBUF_OK)
    return 0;
  *size += sink.size;
  return 1;
}

static int packbuf_i_compat_accepts_json(const packbuf_i_node *node) {
  uint64_t sampled = 0, size = 0;
  for (uint64_t row = 0; row < node->rows; row++) {
    const packbuf_value *cell = packbuf_i_cell(&node->cells, row);
    if (packbuf_i_absent(cell)) continue;
    if (!packbuf_i_compat_json(cell, &size)) return 0;
    if (sampled++ < PACKBUF_JSON_SAMPLE_ROWS && size > PACKBUF_JSON_SAMPLE_BYTES) return 0;
  }
  return 1;
}

/* ---- the decision ---- */

static packbuf_codec packbuf_i_compat_codec(packbuf_i_node *node, const packbuf_i_facts *facts, packbuf_dtype *dtype) {
  *dtype = facts->dtype;
  if (facts->present == 0) return PACKBUF_CODEC_AUTO;
  if (packbuf_i_compat_tensors(facts)) return PACKBUF_CODEC_RAGGED_TENSOR;
  if (packbuf_i_compat_media_lists(node, facts)) return PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  if (packbuf_i_compat_typed(node, facts, dtype)) return PACKBUF_CODEC_TYPED_RAGGED;
  node->rank = 0;
  if (packbuf_i_compat_scalars(node, facts, dtype)) return PACKBUF_CODEC_NDARRAY;
  *dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  if (facts->kinds == PACKBUF_I_KIND(PACKBUF_BYTES)) return PACKBUF_CODEC_BYTES_RAGGED;
  if (facts->kinds == PACKBUF_I_KIND(PACKBUF_MEDIA)) return PACKBUF_CODEC_MEDIA_BYTES;
  if (facts->kinds == PACKBUF_I_KIND(PACKBUF_STRING)) return PACKBUF_CODEC_UTF8_RAGGED;
  return packbuf_i_compat_accepts_json(node) ? PACKBUF_CODEC_JSON_RAGGED : PACKBUF_CODEC_AUTO;
}

static packbuf_status packbuf_i_infer_compat(packbuf_i_expand *expand, packbuf_i_node *node) {
  packbuf_i_look look;
  packbuf_status status;
  packbuf_codec codec;
  packbuf_i_look_start(&look, expand, node);
  look.lenient = 1;
  status = packbuf_i_look_all(&look, node);
  packbuf_i_keys_free(&look.keys);
  if (status) return status;
  codec = packbuf_i_compat_codec(node, &look.facts, &node->dtype);
  node->accepted = codec != PACKBUF_CODEC_AUTO;
  node->codec = (uint8_t)(codec ? codec : PACKBUF_CODEC_OPAQUE_RAGGED);
  node->reason = codec ? packbuf_i_reason(codec) : "rejected: pickle is named as the fallback";
  if (codec == PACKBUF_CODEC_RAGGED_TENSOR) node->rank = look.facts.most_rank;
  if (codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) node->form = look.facts.first_item_form;
  if (packbuf_i_numeric(codec))
    node->form = look.facts.kinds & PACKBUF_I_KIND(PACKBUF_TENSOR) ? look.facts.first_form
                 : codec == PACKBUF_CODEC_TYPED_RAGGED             ? (uint8_t)PACKBUF_FORM_LIST
                                                                   : 0;
  return PACKBUF_OK;
}

/* ---- packing under compat ---- */

/* LOSSY when a leaf's compat decision would change a value or its type. */
static packbuf_status packbuf_i_check_leaf(packbuf_i_expand *expand, const packbuf_i_node *leaf) {
  packbuf_i_node strict = *leaf;
  packbuf_status status;
  if (!leaf->accepted) return PACKBUF_OK; /* it names no codec of its own */
  strict.nulls = strict.missing = 0;
  status = packbuf_i_infer_leaf(expand, &strict, NULL);
  if (status) return status;
  if (packbuf_i_numeric(leaf->codec)) {
    if (strict.codec == leaf->codec && packbuf_i_dtype_equal(strict.dtype, leaf->dtype) && !strict.typed)
      return PACKBUF_OK;
  } else if (leaf->codec != PACKBUF_CODEC_JSON_RAGGED || strict.codec != PACKBUF_CODEC_MSGPACK_RAGGED) {
    return PACKBUF_OK; /* the codec holds what it takes; of JSON, only what strict inference leaves to MessagePack
                          changes */
  }
  return packbuf_i_node_fail(expand, leaf, PACKBUF_LOSSY, "compat inference would change a value or its type",
                             PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

static packbuf_status packbuf_i_check_leaves(packbuf_i_expand *expand, const packbuf_i_node *node) {
  packbuf_status status = PACKBUF_OK;
  if (node->kind == PACKBUF_LEAF) return packbuf_i_check_leaf(expand, node);
  for (const packbuf_i_node *child = node->first_child; child && !status; child = child->next)
    status = packbuf_i_check_leaves(expand, child);
  return status;
}

/* Whether a batch whose options ask for compat inference may pack this column (as strict inference would). */
static packbuf_status packbuf_i_check_compat(packbuf_i_expand *expand, const packbuf_i_node *node) {
  packbuf_i_expand compat = *expand;
  packbuf_i_node probe = *node;
  packbuf_status status;
  compat.mode = PACKBUF_COMPAT;
  compat.schema_count = 0;
  status = packbuf_i_expand_node(&compat, &probe, 0);
  return status ? status : packbuf_i_check_leaves(&compat, &probe);
}
