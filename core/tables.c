/* core/tables.c: the rules N, B, M and S: the node, buffer and metadata tables, the name index and the strings. One
 * pass over each table in the order of section 13; each record is fetched once and checked as a copy. Rules return the
 * field that broke them; the passes turn that into an error. No recursion: the enclosing nodes stand on a fixed stack.
 * May use: base, access, utf8. Must not know: what the bytes of index and data mean. */

#define PACKBUF_I_DEPTH_CAP 256 /* nodes on a path, whatever the caller's limit is */

enum { PACKBUF_I_LAST_CODEC = PACKBUF_CODEC_OPAQUE_RAGGED, PACKBUF_I_LAST_ROLE = PACKBUF_ROLE_PREFIX_LENGTH };

static int packbuf_i_known_codec(unsigned codec) {
  return codec >= PACKBUF_CODEC_NULL && codec <= PACKBUF_I_LAST_CODEC;
}
static int packbuf_i_known_role(unsigned role) { return role >= PACKBUF_ROLE_DATA && role <= PACKBUF_I_LAST_ROLE; }

/* A bit for each form that a leaf of the codec may have (section 9). */
static unsigned packbuf_i_forms_allowed(unsigned codec, unsigned rank) {
  switch (codec) {
    case PACKBUF_CODEC_NDARRAY:
      return 1u << PACKBUF_FORM_ARRAY | 1u << PACKBUF_FORM_TENSOR |
             (rank == 0 ? 1u << PACKBUF_FORM_NATURAL | 1u << PACKBUF_FORM_SCALAR : 0);
    case PACKBUF_CODEC_RAGGED_TENSOR: return 1u << PACKBUF_FORM_TENSOR;
    case PACKBUF_CODEC_TYPED_RAGGED: return 1u << PACKBUF_FORM_LIST | 1u << PACKBUF_FORM_ARRAY;
    case PACKBUF_CODEC_MEDIA_LIST_RAGGED: return 1u << PACKBUF_FORM_BYTES | 1u << PACKBUF_FORM_MEDIA;
    default: return 1u << PACKBUF_FORM_NATURAL;
  }
}

/* A node that encloses the one in turn. */
typedef struct packbuf_i_open_node {
  uint32_t index, last; /* last: of its subtree */
  uint64_t rows;
  uint8_t kind, scope, codec;
} packbuf_i_open_node;

typedef struct packbuf_i_tables {
  const packbuf_view *view;
  packbuf_error *error;
  uint64_t strings; /* where the next string begins */
  uint32_t buffers; /* the next buffer record */
  uint32_t fields, values, named;
  uint32_t depth, max_depth; /* nodes on the stack */
  int ascii;                 /* no byte of the strings is above 0x7F: they need no further look */
  packbuf_i_open_node path[PACKBUF_I_DEPTH_CAP];
} packbuf_i_tables;

static packbuf_status packbuf_i_broken_node(packbuf_error *error, const packbuf_view *view, packbuf_rule rule,
                                            uint64_t at, uint32_t node, uint64_t row) {
  const packbuf_status status = packbuf_i_broken(error, rule, at, row);
  if (error) packbuf_node_path(view, node, error->path, sizeof error->path);
  return status;
}

/* Where the first byte of a text is that is not UTF-8; its size when it is. */
static size_t packbuf_i_text_utf8(packbuf_text text) {
  return packbuf_i_utf8_valid((const uint8_t *)text.data, text.size);
}

static int packbuf_i_all_ascii(const uint8_t *data, uint64_t size) {
  uint64_t high = 0, i = 0;
  for (; i + 8 <= size; i += 8) high |= packbuf_i_load64(data + i);
  for (; i < size; i++) high |= data[i];
  return (high & UINT64_C(0x8080808080808080)) == 0;
}

/* N1 to N3: what the node is and where it stands. up: NULL at the top. */
static packbuf_rule packbuf_i_check_place(const packbuf_i_tables *t, uint32_t index, const packbuf_i_node_record *node,
                                          const packbuf_i_open_node *up, uint64_t *at) {
  const uint32_t last = up ? up->last : t->view->node_count - 1;
  if (node->kind < PACKBUF_LEAF || node->kind > PACKBUF_NODE_LIST) return *at += 22, PACKBUF_RULE_N1;
  if (node->scope > 1 || (up ? node->scope != up->scope : node->scope == 0 && t->values != 0))
    return *at += 23, PACKBUF_RULE_N1;
  if (node->parent != (up ? up->index : PACKBUF_NO_NODE)) return PACKBUF_RULE_N2;
  if (node->descendants > last - index) return *at += 4, PACKBUF_RULE_N2;
  if (t->depth >= t->max_depth) return PACKBUF_RULE_N3;
  return PACKBUF_RULE_NONE;
}

/* N4 to N9: what the record says of its cells. */
static packbuf_rule packbuf_i_check_kind(const packbuf_view *view, const packbuf_i_node_record *node,
                                         const packbuf_i_open_node *up, uint64_t *at) {
  const int known = packbuf_i_known_codec(node->codec);
  if (up && up->kind == PACKBUF_LEAF && packbuf_i_known_codec(up->codec) &&
      ((up->codec != PACKBUF_CODEC_MEDIA_BYTES && up->codec != PACKBUF_CODEC_MEDIA_LIST_RAGGED) ||
       node->kind != PACKBUF_LEAF))
    return *at += 22, PACKBUF_RULE_N4;
  if (node->kind == PACKBUF_LEAF ? node->codec == 0
                                 : (node->codec | node->dtype_code | node->dtype_bits | node->dtype_lanes | node->form |
                                    node->rank | node->logical_type) != 0)
    return *at += 24, PACKBUF_RULE_N5;
  if (node->codec == PACKBUF_CODEC_NULL && (node->dtype_code | node->dtype_bits | node->dtype_lanes) != 0)
    return *at += 24, PACKBUF_RULE_N5;
  if (node->codec >= PACKBUF_CODEC_BYTES_RAGGED && known &&
      (node->dtype_code != PACKBUF_DTYPE_UINT || node->dtype_bits != 8 || node->dtype_lanes != 1))
    return *at += 24, PACKBUF_RULE_N5;
  if ((node->zero_at_44 | node->zero_at_56) != 0) return *at += (node->zero_at_44 ? 44u : 56u), PACKBUF_RULE_N6;
  if (node->rank != 0 && (node->rank > PACKBUF_MAX_RANK || (known && !packbuf_i_numeric(node->codec))))
    return *at += 30, PACKBUF_RULE_N7;
  if (known && (node->form > 7 || (packbuf_i_forms_allowed(node->codec, node->rank) >> node->form & 1) == 0))
    return *at += 27, PACKBUF_RULE_N8;
  if (!(up && up->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) && node->rows != (up            ? up->rows
                                                                              : node->scope ? 1
                                                                                            : view->rows))
    return *at += 48, PACKBUF_RULE_N9;
  return PACKBUF_RULE_NONE;
}

/* The next string must lie where the one before ends. */
static int packbuf_i_next_string(packbuf_i_tables *t, uint32_t offset, uint64_t length, packbuf_text *text) {
  if (offset != t->strings || !packbuf_i_string(t->view, offset, length, text)) return 0;
  t->strings += length;
  return 1;
}

/* N10 to N13: name, shape and parameter. */
static packbuf_rule packbuf_i_check_strings(packbuf_i_tables *t, const packbuf_i_node_record *node,
                                            const packbuf_i_open_node *up, uint64_t *at) {
  packbuf_text name, dimensions, parameter;
  const int array = node->codec == PACKBUF_CODEC_NDARRAY;
  if (!packbuf_i_next_string(t, node->name_offset, node->name_length, &name)) return *at += 8, PACKBUF_RULE_N10;
  if (!packbuf_i_next_string(t, node->shape_offset, array ? 8u * (uint64_t)node->rank : 0, &dimensions))
    return *at += 32, PACKBUF_RULE_N10;
  if (!packbuf_i_next_string(t, node->parameter_offset, node->parameter_length, &parameter))
    return *at += 36, PACKBUF_RULE_N10;
  if (up && up->kind == PACKBUF_NODE_LIST && node->name_length != 0) return *at += 12, PACKBUF_RULE_N11;
  if (!t->ascii) {
    size_t end = packbuf_i_text_utf8(name);
    if (end < name.size) return *at = t->view->strings_at + node->name_offset + end, PACKBUF_RULE_N12;
    end = packbuf_i_text_utf8(parameter);
    if (end < parameter.size) return *at = t->view->strings_at + node->parameter_offset + end, PACKBUF_RULE_N12;
  }
  if (array) {
    uint64_t shape[PACKBUF_MAX_RANK + 1], elements, length;
    if (!packbuf_i_fetch_shape(t->view, node, shape)) return *at += 32, PACKBUF_RULE_N10;
    shape[node->rank] = node->rows;
    if (!packbuf_i_product(shape, node->rank + 1u, &elements) ||
        !packbuf_i_byte_length(elements, packbuf_i_node_dtype(node), &length))
      return *at += 32, PACKBUF_RULE_N13;
  }
  return PACKBUF_RULE_NONE;
}

/* All rules of one node record; enters it into the path. */
static packbuf_rule packbuf_i_check_node(packbuf_i_tables *t, uint32_t index, uint64_t *at) {
  packbuf_i_node_record node;
  packbuf_i_open_node *up;
  packbuf_rule rule;
  (void)packbuf_i_fetch_node(t->view, index, &node);
  while (t->depth > 0 && t->path[t->depth - 1].last < index) t->depth--;
  up = t->depth ? &t->path[t->depth - 1] : NULL;
  rule = packbuf_i_check_place(t, index, &node, up, at);
  if (rule == PACKBUF_RULE_NONE) rule = packbuf_i_check_kind(t->view, &node, up, at);
  if (rule == PACKBUF_RULE_NONE) rule = packbuf_i_check_strings(t, &node, up, at);
  if (rule != PACKBUF_RULE_NONE) return rule;
  if (node.first_buffer != t->buffers) return *at += 16, PACKBUF_RULE_N14;
  if (node.buffer_count > t->view->buffer_count - t->buffers) return *at += 20, PACKBUF_RULE_N14;
  t->buffers += node.buffer_count;
  if (up == NULL) {
    if (node.scope) t->values++;
    else t->fields++;
  }
  if (up == NULL || up->kind != PACKBUF_NODE_LIST) t->named++;
  if (node.descendants == 0) return PACKBUF_RULE_NONE;
  up = &t->path[t->depth++]; /* depth < max_depth: N3 */
  up->index = index;
  up->last = index + node.descendants;
  up->rows = node.rows;
  up->kind = node.kind;
  up->scope = node.scope;
  up->codec = node.codec;
  return PACKBUF_RULE_NONE;
}

static packbuf_status packbuf_i_check_nodes(packbuf_i_tables *t) {
  const packbuf_view *view = t->view;
  for (uint32_t index = 0; index < view->node_count; index++) {
    uint64_t at = packbuf_i_node_at(view, index);
    const packbuf_rule rule = packbuf_i_check_node(t, index, &at);
    if (PACKBUF_I_UNLIKELY(rule != PACKBUF_RULE_NONE))
      return packbuf_i_broken_node(t->error, view, rule, at, index, PACKBUF_NOWHERE);
  }
  if (t->buffers != view->buffer_count) return packbuf_i_broken(t->error, PACKBUF_RULE_N14, 68, PACKBUF_NOWHERE);
  if (t->fields != view->field_count) return packbuf_i_broken(t->error, PACKBUF_RULE_N15, 96, PACKBUF_NOWHERE);
  if (t->values != view->value_count) return packbuf_i_broken(t->error, PACKBUF_RULE_N15, 100, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* The cursors of the two sections, and what verification wants to know of the way. */
typedef struct packbuf_i_cursors {
  uint64_t index, index_end, data, data_end, mask; /* mask: alignment - 1 */
  uint64_t packed;                                 /* in the data, of the buffers that are not plain */
} packbuf_i_cursors;

/* Where the data of the plain buffers end and those of the others begin; UINT64_MAX when they pass all bounds. */
static uint64_t packbuf_i_plain_data_end(const packbuf_view *view, uint64_t data, uint64_t mask) {
  packbuf_i_buffer_record b;
  for (uint32_t i = 0; i < view->buffer_count && packbuf_i_fetch_buffer(view, i, &b); i++) {
    if (b.storage != PACKBUF_STORED || b.role != PACKBUF_ROLE_DATA || b.packing != 0) continue;
    if (b.length > view->total_length || data > view->total_length) return UINT64_MAX;
    data += (b.length + mask) & ~mask;
  }
  return data;
}

static packbuf_i_cursors packbuf_i_start_cursors(const packbuf_view *view) {
  packbuf_i_cursors c;
  c.mask = (UINT64_C(1) << view->alignment_exponent) - 1;
  c.index = view->head_length;
  c.index_end = c.data = view->head_length + view->index_length;
  c.data_end = view->total_length;
  if (view->optional_features & 1) c.index += (packbuf_i_chunks(c.data_end - c.data) * 4 + c.mask) & ~c.mask;
  c.index += (uint64_t)view->checksum_room << view->alignment_exponent;
  c.packed = packbuf_i_plain_data_end(view, c.data, c.mask);
  return c;
}

/* Moves a cursor past `length` bytes at `offset`; 0 when they do not lie there. */
static int packbuf_i_pass(uint64_t *cursor, uint64_t end, uint64_t mask, uint64_t offset, uint64_t length) {
  if (offset != *cursor || offset > end || length > end - offset) return 0;
  *cursor = (offset + length + mask) & ~mask; /* at most end: a multiple of the alignment */
  return 1;
}

/* Moves the cursor of its section past a stored buffer; 0 when it does not lie there. */
static int packbuf_i_pass_stored(packbuf_i_cursors *c, const packbuf_i_buffer_record *b) {
  if (b->role != PACKBUF_ROLE_DATA) return packbuf_i_pass(&c->index, c->index_end, c->mask, b->offset, b->length);
  return packbuf_i_pass(b->packing ? &c->packed : &c->data, c->data_end, c->mask, b->offset, b->length);
}

/* The dtype of a role but data (section 5). */
static packbuf_dtype packbuf_i_role_dtype(unsigned role) {
  static const uint8_t bits[PACKBUF_I_LAST_ROLE + 1] = {0, 0, 64, 64, 64, 8, 1, 1, 8, 64, 64, 64, 64};
  return packbuf_dtype_of(PACKBUF_DTYPE_UINT, bits[role]);
}

/* Whether a sequence stays within its dtype. */
static int packbuf_i_sequence_fits(const packbuf_i_buffer_record *b) {
  const uint64_t low =
      b->dtype.code == PACKBUF_DTYPE_INT ? UINT64_C(1) << 63 : 0; /* smallest value of the dtype, modulo 2^64 */
  const int down = b->value[1] >> 63 != 0;
  const uint64_t step = down ? 0 - b->value[1] : b->value[1];
  const uint64_t room = down ? b->value[0] - low : low - 1 - b->value[0]; /* from the start to the end of the range */
  return b->count < 2 || step == 0 || step <= room / (b->count - 1);
}

/* B5: what the storage does not use is zero. */
static packbuf_rule packbuf_i_check_unused(const packbuf_i_buffer_record *b, uint64_t length, uint64_t *at) {
  const int lies = b->storage == PACKBUF_STORED || b->storage == PACKBUF_ALIAS, packed = lies && b->packing != 0;
  uint64_t used = packed || b->storage == PACKBUF_SEQUENCE ? 16 : 0;
  if (b->storage == PACKBUF_INLINE) used = length;
  if (b->storage == PACKBUF_CONSTANT) used = (packbuf_i_element_bits(b->dtype) + 7) / 8;
  if (b->storage != PACKBUF_ALIAS && b->alias_of != 0) return *at += 12, PACKBUF_RULE_B5;
  if (!lies && b->offset != 0) return *at += 24, PACKBUF_RULE_B5;
  if (!lies && b->length != 0) return *at += 32, PACKBUF_RULE_B5;
  if (used < 8 && b->value[0] >> 8 * used != 0) return *at += 40, PACKBUF_RULE_B5;
  if (used < 16 && (used <= 8 ? b->value[1] : b->value[1] >> (8 * used - 64)) != 0) return *at += 40, PACKBUF_RULE_B5;
  if (!packed && b->headers_offset != 0) return *at += 56, PACKBUF_RULE_B5;
  return PACKBUF_RULE_NONE;
}

/* B9. The target is fetched again: it is only compared with. */
static int packbuf_i_alias_fits(const packbuf_view *view, uint32_t index, const packbuf_i_buffer_record *b) {
  packbuf_i_buffer_record of;
  if (b->alias_of >= index || !packbuf_i_fetch_buffer(view, b->alias_of, &of)) return 0;
  return of.storage == PACKBUF_STORED && (of.role == PACKBUF_ROLE_DATA) == (b->role == PACKBUF_ROLE_DATA) &&
         packbuf_i_dtype_equal(of.dtype, b->dtype) && of.packing == b->packing && of.count == b->count &&
         of.offset == b->offset && of.length == b->length && of.value[0] == b->value[0] && of.value[1] == b->value[1] &&
         of.headers_offset == b->headers_offset;
}

/* B6 to B11: what one storage asks for. */
static packbuf_rule packbuf_i_check_storage(const packbuf_view *view, packbuf_i_cursors *c, uint32_t index,
                                            const packbuf_i_buffer_record *b, uint64_t length, uint64_t *at) {
  const uint32_t bits = packbuf_i_element_bits(b->dtype);
  if (b->storage == PACKBUF_STORED) {
    if (b->packing == 0 && b->length != length) return *at += 32, PACKBUF_RULE_B10;
    if (b->packing != 0 &&
        !packbuf_i_pass(&c->index, c->index_end, c->mask, b->headers_offset, packbuf_i_headers_length(length)))
      return *at += 56, PACKBUF_RULE_B11;
    if (!packbuf_i_pass_stored(c, b)) return *at += 24, PACKBUF_RULE_B11;
    return PACKBUF_RULE_NONE;
  }
  if (b->storage == PACKBUF_ALIAS)
    return packbuf_i_alias_fits(view, index, b) ? PACKBUF_RULE_NONE : (*at += 12, PACKBUF_RULE_B9);
  if (b->storage == PACKBUF_INLINE && length > 16) return *at += 16, PACKBUF_RULE_B6;
  if (b->packing != 0) return *at += 7, PACKBUF_RULE_B6;
  if (b->storage == PACKBUF_CONSTANT && (bits == 1 || (b->dtype.code == PACKBUF_DTYPE_BOOL && bits == 8)) &&
      (b->value[0] & 255) > 1)
    return *at += 40, PACKBUF_RULE_B7;
  if (b->storage == PACKBUF_SEQUENCE) {
    if (b->dtype.code > PACKBUF_DTYPE_UINT || b->dtype.bits != 64 || b->dtype.lanes != 1)
      return *at += 8, PACKBUF_RULE_B8;
    if (!packbuf_i_sequence_fits(b)) return *at += 40, PACKBUF_RULE_B8;
  }
  return PACKBUF_RULE_NONE;
}

/* B1 to B11 of one record. before: role and dim of the record before, as role * 256 + dim, or -1. */
static packbuf_rule packbuf_i_check_buffer(const packbuf_view *view, packbuf_i_cursors *c, uint32_t index,
                                           const packbuf_i_buffer_record *b, uint32_t node_index,
                                           const packbuf_i_node_record *node, int before, uint64_t *at) {
  uint64_t length;
  packbuf_rule rule;
  if (b->node != node_index) return PACKBUF_RULE_B1;
  if (b->role * 256 + b->dim <= before) return *at += 4, PACKBUF_RULE_B1;
  if (b->storage < PACKBUF_STORED || b->storage > PACKBUF_ALIAS) return *at += 6, PACKBUF_RULE_B2;
  if (b->role == PACKBUF_ROLE_SHAPE ? b->dim >= node->rank : b->dim != 0) return *at += 5, PACKBUF_RULE_B2;
  if (b->role == PACKBUF_ROLE_DATA) {
    if (!packbuf_i_dtype_equal(b->dtype, packbuf_i_node_dtype(node)) || packbuf_i_element_bits(b->dtype) == 0 ||
        (node->codec >= PACKBUF_CODEC_BYTES_RAGGED && node->codec <= PACKBUF_I_LAST_CODEC &&
         !packbuf_i_dtype_equal(b->dtype, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8))))
      return *at += 8, PACKBUF_RULE_B3;
  } else if (packbuf_i_known_role(b->role) && !packbuf_i_dtype_equal(b->dtype, packbuf_i_role_dtype(b->role))) {
    return *at += 8, PACKBUF_RULE_B3;
  }
  if (!packbuf_i_byte_length(b->count, b->dtype, &length)) return *at += 16, PACKBUF_RULE_B4;
  rule = packbuf_i_check_unused(b, length, at);
  if (rule == PACKBUF_RULE_NONE && b->packing == 1 && (b->storage == PACKBUF_STORED || b->storage == PACKBUF_ALIAS)) {
    unsigned field = 0;
    rule = packbuf_i_packed_wrong(b, node->codec, &field);
    *at += field;
  }
  return rule != PACKBUF_RULE_NONE ? rule : packbuf_i_check_storage(view, c, index, b, length, at);
}

/* What B13 wants of a node's buffers: a bit for each role that may be there and that must be there. */
typedef struct packbuf_i_demand {
  uint32_t may, must, shapes; /* shapes: dims of role shape */
  uint64_t rows;              /* stored rows */
  uint64_t data;              /* elements of role data; UINT64_MAX: any number */
  uint64_t items;             /* of media_list_ragged: one less than the offsets are */
} packbuf_i_demand;

#define PACKBUF_I_ROLE(name) (1u << PACKBUF_ROLE_##name)

static packbuf_i_demand packbuf_i_demands(const packbuf_view *view, const packbuf_i_node_record *node) {
  packbuf_i_demand d;
  d.may = PACKBUF_I_ROLE(VALIDITY) | PACKBUF_I_ROLE(MISSING);
  d.must = d.shapes = 0;
  d.rows = node->rows;
  d.data = UINT64_MAX;
  d.items = 0;
  if (node->kind == PACKBUF_NODE_LIST) d.must = PACKBUF_I_ROLE(LENGTHS);
  if (node->kind == PACKBUF_LEAF && node->codec == PACKBUF_CODEC_NULL) d.may = PACKBUF_I_ROLE(MISSING);
  if (node->kind == PACKBUF_LEAF && node->codec != PACKBUF_CODEC_NULL)
    d.may |= PACKBUF_I_ROLE(ROW_INDEX), d.must = PACKBUF_I_ROLE(DATA) | PACKBUF_I_ROLE(OFFSETS);
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    uint64_t shape[PACKBUF_MAX_RANK + 1];
    d.must = PACKBUF_I_ROLE(DATA);
    if (node->rank == 0) d.may |= PACKBUF_I_ROLE(TYPES);
    if (!packbuf_i_fetch_shape(view, node, shape)) return d; /* any count: the elements there are bound every access */
    shape[node->rank] = node->rows;
    (void)packbuf_i_product(shape, node->rank + 1u, &d.data); /* fits: N13 */
  }
  if (packbuf_i_ragged_numbers(node->codec)) {
    d.may |= PACKBUF_I_ROLE(TYPES) | PACKBUF_I_ROLE(NDIMS);
    if (node->rank >= 2) d.shapes = node->rank, d.must |= PACKBUF_I_ROLE(SHAPE);
    if (node->rank == 1) d.may |= PACKBUF_I_ROLE(PREFIX_ROW) | PACKBUF_I_ROLE(PREFIX_LENGTH);
  }
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    d.may |= PACKBUF_I_ROLE(TYPES), d.must |= PACKBUF_I_ROLE(ITEM_OFFSETS);
  d.may |= d.must;
  return d;
}

/* Whether a leaf shares rows, by the role of the last of its buffer records: only prefixes come after a row_index. */
static int packbuf_i_shares_rows(const packbuf_view *view, const packbuf_i_node_record *node) {
  packbuf_i_buffer_record b;
  for (uint32_t i = node->buffer_count; i > 0 && packbuf_i_fetch_buffer(view, node->first_buffer + i - 1, &b); i--) {
    if (b.role <= PACKBUF_ROLE_ROW_INDEX) return b.role == PACKBUF_ROLE_ROW_INDEX;
  }
  return 0;
}

/* The stored rows that the data of an ndarray hold; 0 when they are no number of rows, or more than `rows`. Cells of
 * 2^64 elements or more, of which there is none (N13), hold none. */
static int packbuf_i_array_rows(const uint64_t *shape, unsigned rank, uint64_t count, uint64_t rows, uint64_t *stored) {
  uint64_t each;
  (void)packbuf_i_product(shape, rank, &each);
  if (each == 0 || count % each != 0) return 0;
  *stored = count / each;
  return *stored <= rows;
}

/* With a row_index: finds the stored rows in the buffer that tells them; 0 when it cannot be. */
static int packbuf_i_find_stored(const packbuf_view *view, const packbuf_i_node_record *node,
                                 const packbuf_i_buffer_record *b, packbuf_i_demand *d) {
  const unsigned teller = node->codec == PACKBUF_CODEC_NDARRAY             ? PACKBUF_ROLE_DATA
                          : node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED ? PACKBUF_ROLE_ITEM_OFFSETS
                                                                           : PACKBUF_ROLE_OFFSETS;
  uint64_t shape[PACKBUF_MAX_RANK];
  if (b->role != teller) return 1;
  if (teller != PACKBUF_ROLE_DATA) {
    d->rows = b->count - 1;
    return b->count != 0 && d->rows <= node->rows;
  }
  d->data = b->count;
  return packbuf_i_fetch_shape(view, node, shape) &&
         packbuf_i_array_rows(shape, node->rank, b->count, node->rows, &d->rows);
}

/* Whether a buffer of a known role has the count that rows demands. */
static int packbuf_i_count_fits(const packbuf_i_node_record *node, const packbuf_i_demand *d,
                                const packbuf_i_buffer_record *b) {
  const int list = node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  switch (b->role) {
    case PACKBUF_ROLE_DATA: return d->data == UINT64_MAX || b->count == d->data;
    case PACKBUF_ROLE_OFFSETS: return list || (b->count != 0 && b->count - 1 == d->rows);
    case PACKBUF_ROLE_ITEM_OFFSETS: return b->count != 0 && b->count - 1 == d->rows;
    case PACKBUF_ROLE_TYPES: return b->count == (list ? d->items : d->rows);
    case PACKBUF_ROLE_VALIDITY:
    case PACKBUF_ROLE_MISSING:
    case PACKBUF_ROLE_ROW_INDEX: return b->count == node->rows;
    default: return b->count == d->rows;
  }
}

/* The items of a media list in d->items; 0 when its attribute leaves have other rows. */
static int packbuf_i_items_fit(const packbuf_view *view, uint32_t index, const packbuf_i_node_record *node,
                               const packbuf_i_buffer_record *offsets, packbuf_i_demand *d) {
  const uint64_t end = (uint64_t)index + 1 + node->descendants;
  if (offsets->count == 0) return 0;
  d->items = offsets->count - 1;
  for (uint64_t child = (uint64_t)index + 1; child < end;) {
    packbuf_i_node_record leaf;
    if (!packbuf_i_fetch_node(view, (uint32_t)child, &leaf) || leaf.rows != d->items) return 0;
    child += 1 + (uint64_t)leaf.descendants;
  }
  return 1;
}

/* B13 of one node, whose records were fetched in turn: the first record that breaks it, or what is absent. */
typedef struct packbuf_i_census {
  packbuf_i_demand demand;
  uint32_t seen, shapes;
  int shares;           /* it has a row_index */
  int unknown_role;     /* a leaf that cannot be read: only the counts of its masks matter */
  uint64_t wrong, mask; /* offset of the first record that does not fit, and of the first such mask; UINT64_MAX: none */
} packbuf_i_census;

static void packbuf_i_count_buffer(packbuf_i_census *s, const packbuf_view *view, uint32_t node_index,
                                   const packbuf_i_node_record *node, const packbuf_i_buffer_record *b, uint64_t at) {
  const int known = packbuf_i_known_role(b->role);
  const uint32_t bit = known ? 1u << b->role : 0;
  int fits = (bit & s->demand.may) != 0;
  if (b->role == PACKBUF_ROLE_VALIDITY || b->role == PACKBUF_ROLE_MISSING) {
    if (b->count != node->rows && s->mask == UINT64_MAX) s->mask = at;
  }
  if (!known) s->unknown_role = 1;
  if ((bit & (PACKBUF_I_ROLE(PREFIX_ROW) | PACKBUF_I_ROLE(PREFIX_LENGTH))) != 0 &&
      (s->seen & (PACKBUF_I_ROLE(NDIMS) | PACKBUF_I_ROLE(TYPES))) != 0)
    fits = 0;
  if (fits && s->shares) fits = packbuf_i_find_stored(view, node, b, &s->demand);
  if (fits && b->role == PACKBUF_ROLE_OFFSETS && node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
    fits = packbuf_i_items_fit(view, node_index, node, b, &s->demand);
  if (fits) fits = packbuf_i_count_fits(node, &s->demand, b);
  if (!fits && s->wrong == UINT64_MAX) s->wrong = at;
  s->seen |= bit;
  if (b->role == PACKBUF_ROLE_SHAPE) s->shapes++;
}

static uint64_t packbuf_i_census_result(const packbuf_i_census *s, const packbuf_i_node_record *node,
                                        uint64_t node_at) {
  if (node->kind == PACKBUF_LEAF && (s->unknown_role || !packbuf_i_known_codec(node->codec))) return s->mask;
  if (s->wrong != UINT64_MAX) return s->wrong;
  if (!(s->seen & PACKBUF_I_ROLE(PREFIX_ROW)) != !(s->seen & PACKBUF_I_ROLE(PREFIX_LENGTH))) return node_at + 16;
  return (s->demand.must & ~s->seen) != 0 || s->shapes != s->demand.shapes ? node_at + 16 : UINT64_MAX;
}

/* The buffers of one node. B13 is only noted in *layout (once): it is reported after all records have passed. */
static packbuf_status packbuf_i_check_node_buffers(packbuf_i_tables *t, packbuf_i_cursors *c, uint32_t index,
                                                   uint64_t *layout, uint32_t *layout_node) {
  packbuf_i_node_record node;
  packbuf_i_census census;
  uint64_t result;
  int before = -1;
  (void)packbuf_i_fetch_node(t->view, index, &node);
  census.demand = packbuf_i_demands(t->view, &node);
  census.seen = census.shapes = 0;
  census.shares = node.kind == PACKBUF_LEAF && packbuf_i_shares_rows(t->view, &node);
  census.unknown_role = 0;
  census.wrong = census.mask = UINT64_MAX;
  for (uint32_t i = 0; i < node.buffer_count; i++, t->buffers++) {
    packbuf_i_buffer_record b;
    uint64_t at = packbuf_i_buffer_at(t->view, t->buffers);
    packbuf_rule rule;
    if (!packbuf_i_fetch_buffer(t->view, t->buffers, &b))
      return packbuf_i_broken(t->error, PACKBUF_RULE_N14, 68, PACKBUF_NOWHERE);
    rule = packbuf_i_check_buffer(t->view, c, t->buffers, &b, index, &node, before, &at);
    if (PACKBUF_I_UNLIKELY(rule != PACKBUF_RULE_NONE))
      return packbuf_i_broken_node(t->error, t->view, rule, at, index, PACKBUF_NOWHERE);
    before = b.role * 256 + b.dim;
    packbuf_i_count_buffer(&census, t->view, index, &node, &b, at);
  }
  result = packbuf_i_census_result(&census, &node, packbuf_i_node_at(t->view, index));
  if (result != UINT64_MAX && *layout == UINT64_MAX) *layout = result, *layout_node = index;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_check_buffers(packbuf_i_tables *t) {
  packbuf_i_cursors c = packbuf_i_start_cursors(t->view);
  uint64_t layout = UINT64_MAX;
  uint32_t layout_node = 0;
  t->buffers = 0;
  for (uint32_t index = 0; index < t->view->node_count; index++) {
    const packbuf_status status = packbuf_i_check_node_buffers(t, &c, index, &layout, &layout_node);
    if (PACKBUF_I_UNLIKELY(status != PACKBUF_OK)) return status;
  }
  if (c.index != c.index_end) return packbuf_i_broken(t->error, PACKBUF_RULE_B12, 40, PACKBUF_NOWHERE);
  if (c.packed != c.data_end) return packbuf_i_broken(t->error, PACKBUF_RULE_B12, 24, PACKBUF_NOWHERE);
  if (layout != UINT64_MAX)
    return packbuf_i_broken_node(t->error, t->view, PACKBUF_RULE_B13, layout, layout_node, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* M1 to M5 of one record; node and key of the one before in *before_node and *before_key (data NULL: none). */
static packbuf_rule packbuf_i_check_pair(packbuf_i_tables *t, uint32_t index, uint32_t *before_node,
                                         packbuf_text *before_key, uint64_t *at) {
  uint8_t raw[32];
  packbuf_text key, text;
  uint32_t node, key_offset, key_length, text_offset, text_length;
  int there;
  memcpy(raw, t->view->base + *at, sizeof raw);
  PACKBUF_I_FETCHED_STRUCT(raw);
  node = packbuf_i_load32(raw), key_offset = packbuf_i_load32(raw + 4), key_length = packbuf_i_load32(raw + 8);
  text_offset = packbuf_i_load32(raw + 12), text_length = packbuf_i_load32(raw + 16);
  if (node != PACKBUF_NO_NODE && node >= t->view->node_count) return PACKBUF_RULE_M1;
  there = packbuf_i_string(t->view, key_offset, key_length, &key);
  if (index > 0 &&
      (node < *before_node || (node == *before_node && there &&
                               packbuf_i_compare_text(key.data, key.size, before_key->data, before_key->size) <= 0)))
    return *at += 4, PACKBUF_RULE_M2;
  if (!packbuf_i_next_string(t, key_offset, key_length, &key)) return *at += 4, PACKBUF_RULE_M3;
  if (!packbuf_i_next_string(t, text_offset, text_length, &text)) return *at += 12, PACKBUF_RULE_M3;
  if (!t->ascii) {
    size_t end = packbuf_i_text_utf8(key);
    if (end < key.size) return *at = t->view->strings_at + key_offset + end, PACKBUF_RULE_M4;
    end = packbuf_i_text_utf8(text);
    if (end < text.size) return *at = t->view->strings_at + text_offset + end, PACKBUF_RULE_M4;
  }
  if ((packbuf_i_load32(raw + 20) | packbuf_i_load64(raw + 24)) != 0) return *at += 20, PACKBUF_RULE_M5;
  *before_node = node;
  *before_key = key;
  return PACKBUF_RULE_NONE;
}

static packbuf_status packbuf_i_check_metadata(packbuf_i_tables *t) {
  uint32_t node = 0;
  packbuf_text key;
  key.data = NULL;
  key.size = 0;
  for (uint32_t index = 0; index < t->view->metadata_count; index++) {
    uint64_t at = packbuf_i_metadata_at(t->view, index);
    const packbuf_rule rule = packbuf_i_check_pair(t, index, &node, &key, &at);
    if (PACKBUF_I_UNLIKELY(rule != PACKBUF_RULE_NONE)) return packbuf_i_broken(t->error, rule, at, PACKBUF_NOWHERE);
  }
  if (t->strings != t->view->strings_length) return packbuf_i_broken(t->error, PACKBUF_RULE_M3, 88, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* A name as it is ordered: (parent, scope), then the bytes. */
typedef struct packbuf_i_name {
  uint64_t group;
  packbuf_text text;
} packbuf_i_name;

/* The name of node `index`; 0 when it has none: a child of a list, or no node. */
static int packbuf_i_name_of(const packbuf_view *view, uint32_t index, packbuf_i_name *name) {
  packbuf_i_node_record node, up;
  if (!packbuf_i_fetch_node(view, index, &node)) return 0;
  if (node.parent != PACKBUF_NO_NODE && (!packbuf_i_fetch_node(view, node.parent, &up) || up.kind == PACKBUF_NODE_LIST))
    return 0;
  name->group = (uint64_t)node.parent << 8 | node.scope;
  return packbuf_i_string(view, node.name_offset, node.name_length, &name->text);
}

static packbuf_status packbuf_i_check_names(packbuf_i_tables *t) {
  packbuf_i_name before, name;
  memset(&before, 0, sizeof before);
  if (t->view->name_count != t->named) return packbuf_i_broken(t->error, PACKBUF_RULE_S1, 76, PACKBUF_NOWHERE);
  for (uint32_t i = 0; i < t->view->name_count; i++) {
    uint32_t node = 0;
    int order;
    (void)packbuf_i_fetch_name(t->view, i, &node);
    if (PACKBUF_I_UNLIKELY(!packbuf_i_name_of(t->view, node, &name)))
      return packbuf_i_broken(t->error, PACKBUF_RULE_S1, packbuf_i_name_at(t->view, i), PACKBUF_NOWHERE);
    order = before.group != name.group
                ? (before.group < name.group ? -1 : 1)
                : packbuf_i_compare_text(before.text.data, before.text.size, name.text.data, name.text.size);
    if (PACKBUF_I_UNLIKELY(order >= 0 && i > 0))
      return packbuf_i_broken_node(t->error, t->view, order > 0 ? PACKBUF_RULE_S2 : PACKBUF_RULE_S3,
                                   packbuf_i_name_at(t->view, i), node, PACKBUF_NOWHERE);
    before = name;
  }
  return PACKBUF_OK;
}

/* All rules of the tables, for a view whose header and directory are checked. */
static packbuf_status packbuf_i_check_tables(const packbuf_view *view, packbuf_error *error) {
  packbuf_i_tables t;
  packbuf_status status;
  t.view = view;
  t.error = error;
  t.strings = 0;
  t.buffers = t.fields = t.values = t.named = t.depth = 0;
  t.max_depth = view->limits.depth < PACKBUF_I_DEPTH_CAP ? view->limits.depth : PACKBUF_I_DEPTH_CAP;
  t.ascii = packbuf_i_all_ascii(view->base + view->strings_at, view->strings_length);
  status = packbuf_i_check_nodes(&t);
  if (status == PACKBUF_OK) status = packbuf_i_check_buffers(&t);
  if (status == PACKBUF_OK) status = packbuf_i_check_metadata(&t);
  if (status == PACKBUF_OK) status = packbuf_i_check_names(&t);
  return status;
}
