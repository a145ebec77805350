/* core/access.c: the one layer that reads an opened packed buffer. A peer may rewrite the bytes at any time, so every
 * record, string and element is fetched once into a local copy, the copy is checked against the memory there is, and
 * only the copy is used; that the head was checked when it was opened is never relied on. What the functions return is
 * safe to use; whether it makes sense is verify's matter.
 * May use: base, fetched, status, value (dtypes), the path of a node (public). Must not know: codecs, the order of
 * rules, how a batch is written. */

/* A node record (section 4), field by field as it lies in the bytes. */
typedef struct packbuf_i_node_record {
  uint32_t parent, descendants, name_offset, name_length, first_buffer;
  uint16_t buffer_count;
  uint8_t kind, scope, codec, dtype_code, dtype_bits, form;
  uint16_t dtype_lanes;
  uint8_t rank, logical_type;
  uint32_t shape_offset, parameter_offset, parameter_length, zero_at_44;
  uint64_t rows, zero_at_56;
} packbuf_i_node_record;

/* A buffer record (section 5), likewise. */
typedef struct packbuf_i_buffer_record {
  uint32_t node;
  uint8_t role, dim, storage, packing;
  packbuf_dtype dtype;
  uint32_t alias_of;
  uint64_t count, offset, length;
  uint64_t value[2];
  uint64_t headers_offset;
} packbuf_i_buffer_record;

/* Both are 64 bytes without padding: on a little-endian machine a fetch is one copy. */
typedef char
    packbuf_i_record_size[sizeof(packbuf_i_node_record) == 64 && sizeof(packbuf_i_buffer_record) == 64 ? 1 : -1];

static void packbuf_i_swap16(uint16_t *v) { *v = packbuf_i_load16(v); }
static void packbuf_i_swap32(uint32_t *v) { *v = packbuf_i_load32(v); }
static void packbuf_i_swap64(uint64_t *v) { *v = packbuf_i_load64(v); }

/* Bits of one element; 0 where there is no dtype. Below 2^24. */
static uint32_t packbuf_i_element_bits(packbuf_dtype dtype) { return (uint32_t)dtype.bits * dtype.lanes; }

/* The byte length of `count` elements in *length; 0 when it is 2^63 or more. */
static int packbuf_i_byte_length(uint64_t count, packbuf_dtype dtype, uint64_t *length) {
  const uint64_t bits = packbuf_i_element_bits(dtype);
  if (PACKBUF_I_UNLIKELY(count >> 39 != 0)) { /* else the product stays below 2^63 */
    uint64_t whole;
    if (!packbuf_i_mul(count >> 3, bits, &whole) || whole >> 63) return 0;
    *length = whole + (((count & 7) * bits + 7) >> 3);
    return *length >> 63 == 0;
  }
  *length = (count * bits + 7) >> 3;
  return 1;
}

/* The product of `rank` dimensions in *product; 0, and UINT64_MAX there, when it is 2^64 or more. One zero dimension
 * makes it 0 whatever the others are. */
static int packbuf_i_product(const uint64_t *shape, unsigned rank, uint64_t *product) {
  uint64_t result = 1;
  int fits = 1;
  for (unsigned d = 0; d < rank; d++) {
    if (shape[d] == 0) {
      *product = 0;
      return 1;
    }
    if (((result | shape[d]) >> 32) == 0) result *= shape[d]; /* without the division of the checked product */
    else if (!packbuf_i_mul(result, shape[d], &result)) fits = 0;
  }
  *product = fits ? result : UINT64_MAX;
  return fits;
}

/* Where record `index` of a table lies. The view is a checked copy: index < count means that the whole record is
 * there. */
static uint64_t packbuf_i_node_at(const packbuf_view *view, uint32_t index) {
  return view->nodes_at + (uint64_t)index * view->node_stride;
}
static uint64_t packbuf_i_buffer_at(const packbuf_view *view, uint32_t index) {
  return view->buffers_at + (uint64_t)index * view->buffer_stride;
}
static uint64_t packbuf_i_metadata_at(const packbuf_view *view, uint32_t index) {
  return view->metadata_at + (uint64_t)index * view->metadata_stride;
}
static uint64_t packbuf_i_name_at(const packbuf_view *view, uint32_t index) {
  return view->names_at + (uint64_t)index * view->name_stride;
}

/* Fetches node record `index`; 0 when there is none. */
static int packbuf_i_fetch_node(const packbuf_view *view, uint32_t index, packbuf_i_node_record *node) {
  if (PACKBUF_I_UNLIKELY(index >= view->node_count)) return 0;
  memcpy(node, view->base + packbuf_i_node_at(view, index), sizeof *node);
  PACKBUF_I_FETCHED_STRUCT(*node);
  if (packbuf_i_big_endian()) {
    packbuf_i_swap32(&node->parent), packbuf_i_swap32(&node->descendants), packbuf_i_swap32(&node->name_offset);
    packbuf_i_swap32(&node->name_length), packbuf_i_swap32(&node->first_buffer), packbuf_i_swap32(&node->shape_offset);
    packbuf_i_swap32(&node->parameter_offset), packbuf_i_swap32(&node->parameter_length);
    packbuf_i_swap16(&node->buffer_count), packbuf_i_swap16(&node->dtype_lanes);
    packbuf_i_swap64(&node->rows);
  }
  return 1;
}

static packbuf_dtype packbuf_i_node_dtype(const packbuf_i_node_record *node) {
  packbuf_dtype dtype;
  dtype.code = node->dtype_code;
  dtype.bits = node->dtype_bits;
  dtype.lanes = node->dtype_lanes;
  return dtype;
}

/* How many nodes from `begin` to `end` are siblings; their last subtree ends at `end`. */
static uint64_t packbuf_i_count_siblings(const packbuf_view *view, uint64_t begin, uint64_t end) {
  uint64_t count = 0;
  packbuf_i_node_record node;
  for (; begin < end && packbuf_i_fetch_node(view, (uint32_t)begin, &node); count++)
    begin += 1 + (uint64_t)node.descendants;
  return count;
}

/* Where the fields end and the batch values begin in the node table. */
static uint64_t packbuf_i_fields_end(const packbuf_view *view) {
  uint64_t at = 0;
  packbuf_i_node_record node;
  for (uint32_t i = 0;
       i < view->field_count && at < view->node_count && packbuf_i_fetch_node(view, (uint32_t)at, &node); i++)
    at += 1 + (uint64_t)node.descendants;
  return at < view->node_count ? at : view->node_count;
}

/* Fetches buffer record `index`; 0 when there is none. */
static int packbuf_i_fetch_buffer(const packbuf_view *view, uint32_t index, packbuf_i_buffer_record *buffer) {
  if (PACKBUF_I_UNLIKELY(index >= view->buffer_count)) return 0;
  memcpy(buffer, view->base + packbuf_i_buffer_at(view, index), sizeof *buffer);
  PACKBUF_I_FETCHED_STRUCT(*buffer);
  if (packbuf_i_big_endian()) {
    packbuf_i_swap32(&buffer->node), packbuf_i_swap32(&buffer->alias_of), packbuf_i_swap16(&buffer->dtype.lanes);
    packbuf_i_swap64(&buffer->count), packbuf_i_swap64(&buffer->offset), packbuf_i_swap64(&buffer->length);
    packbuf_i_swap64(&buffer->value[0]), packbuf_i_swap64(&buffer->value[1]), packbuf_i_swap64(&buffer->headers_offset);
  }
  return 1;
}

/* The node that entry `index` of the name index names; 0 when there is no such entry. */
static int packbuf_i_fetch_name(const packbuf_view *view, uint32_t index, uint32_t *node) {
  if (PACKBUF_I_UNLIKELY(index >= view->name_count)) return 0;
  *node = packbuf_i_load32(view->base + packbuf_i_name_at(view, index));
  PACKBUF_I_FETCHED(*node);
  return 1;
}

/* `length` bytes of the strings at `offset`; 0 when they do not lie within. */
static int packbuf_i_string(const packbuf_view *view, uint64_t offset, uint64_t length, packbuf_text *text) {
  if (PACKBUF_I_UNLIKELY(offset > view->strings_length || length > view->strings_length - offset)) return 0;
  text->data = (const char *)view->base + view->strings_at + offset;
  text->size = (size_t)length;
  return 1;
}

/* The dimensions of an ndarray cell; 0 when they do not lie within the strings. */
static int packbuf_i_fetch_shape(const packbuf_view *view, const packbuf_i_node_record *node, uint64_t *shape) {
  packbuf_text text;
  if (node->rank > PACKBUF_MAX_RANK || !packbuf_i_string(view, node->shape_offset, 8u * (uint64_t)node->rank, &text))
    return 0;
  for (unsigned d = 0; d < node->rank; d++) {
    shape[d] = packbuf_i_load64(text.data + 8 * d);
    PACKBUF_I_FETCHED(shape[d]);
  }
  return 1;
}

/* What makes a node record unsafe to follow; PACKBUF_RULE_NONE when nothing does. `at`: the field. */
static packbuf_rule packbuf_i_node_unsafe(const packbuf_view *view, uint32_t index, const packbuf_i_node_record *node,
                                          packbuf_node *out, unsigned *at) {
  if (node->kind < PACKBUF_LEAF || node->kind > PACKBUF_NODE_LIST) return *at = 22, PACKBUF_RULE_N1;
  if (node->scope > 1) return *at = 23, PACKBUF_RULE_N1;
  if (node->parent != PACKBUF_NO_NODE && node->parent >= index) return *at = 0, PACKBUF_RULE_N2;
  if (node->descendants > view->node_count - 1 - index) return *at = 4, PACKBUF_RULE_N2;
  if (node->rank > PACKBUF_MAX_RANK) return *at = 30, PACKBUF_RULE_N7;
  if (!packbuf_i_string(view, node->name_offset, node->name_length, &out->name)) return *at = 8, PACKBUF_RULE_N10;
  if (!packbuf_i_string(view, node->parameter_offset, node->parameter_length, &out->parameter))
    return *at = 36, PACKBUF_RULE_N10;
  if (node->first_buffer > view->buffer_count || node->buffer_count > view->buffer_count - node->first_buffer)
    return *at = 16, PACKBUF_RULE_N14;
  memset(out->shape, 0, sizeof out->shape);
  if (node->codec == PACKBUF_CODEC_NDARRAY && node->kind == PACKBUF_LEAF &&
      !packbuf_i_fetch_shape(view, node, out->shape))
    return *at = 32, PACKBUF_RULE_N10;
  return PACKBUF_RULE_NONE;
}

PACKBUF_API packbuf_status packbuf_get_node(const packbuf_view *view, uint32_t index, packbuf_node *node,
                                            packbuf_error *error) {
  packbuf_i_node_record raw;
  packbuf_rule rule;
  unsigned at = 0;
  if (!packbuf_i_fetch_node(view, index, &raw))
    return packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "no such node", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  rule = packbuf_i_node_unsafe(view, index, &raw, node, &at);
  if (rule != PACKBUF_RULE_NONE)
    return packbuf_i_broken(error, rule, packbuf_i_node_at(view, index) + at, PACKBUF_NOWHERE);
  node->index = index;
  node->parent = raw.parent;
  node->descendants = raw.descendants;
  node->first_buffer = raw.first_buffer;
  node->buffer_count = raw.buffer_count;
  node->kind = (packbuf_node_kind)raw.kind;
  node->scope = raw.scope;
  node->codec = raw.codec;
  node->form = raw.form;
  node->rank = raw.rank;
  node->logical_type = raw.logical_type;
  node->dtype = packbuf_i_node_dtype(&raw);
  node->rows = raw.rows;
  return PACKBUF_OK;
}

/* Bytes of block headers of a packed buffer: 16 for each block of 8 KiB of unpacked bytes. */
static uint64_t packbuf_i_headers_length(uint64_t unpacked) {
  return packbuf_i_blocks_of(unpacked, PACKBUF_I_BLOCK_BYTES) * 16;
}

/* B14, of a node of the codec. Bytes and texts are read in place. */
static packbuf_rule packbuf_i_packed_wrong(const packbuf_i_buffer_record *raw, unsigned codec, unsigned *at) {
  if (raw->role == PACKBUF_ROLE_DATA && codec >= PACKBUF_CODEC_BYTES_RAGGED && codec <= PACKBUF_CODEC_OPAQUE_RAGGED)
    return *at = 7, PACKBUF_RULE_B14;
  if (packbuf_i_unit_bits(raw->dtype) == 0) return *at = 8, PACKBUF_RULE_B14;
  if (raw->count == 0) return *at = 16, PACKBUF_RULE_B14;
  if (raw->length % 64 != 0) return *at = 32, PACKBUF_RULE_B14;
  if (raw->value[0] != 0 || raw->value[1] != 0) return *at = 40, PACKBUF_RULE_B14;
  return PACKBUF_RULE_NONE;
}

/* What makes a record packed in blocks, whose elements take `length` bytes, unsafe: B14, headers outside of the
 * index. */
static packbuf_rule packbuf_i_packed_unsafe(const packbuf_view *view, const packbuf_i_buffer_record *raw,
                                            uint64_t length, unsigned *at) {
  const uint64_t index_end = view->head_length + view->index_length, headers = packbuf_i_headers_length(length);
  const packbuf_rule rule = packbuf_i_packed_wrong(raw, 0, at);
  if (rule != PACKBUF_RULE_NONE) return rule;
  if (raw->headers_offset > index_end || headers > index_end - raw->headers_offset) return *at = 56, PACKBUF_RULE_B11;
  return PACKBUF_RULE_NONE;
}

/* What makes a buffer record unsafe to follow: elements that are not where it says. `at`: the field. */
static packbuf_rule packbuf_i_buffer_unsafe(const packbuf_view *view, const packbuf_i_buffer_record *raw,
                                            unsigned *at) {
  uint64_t length;
  if (raw->storage < PACKBUF_STORED || raw->storage > PACKBUF_ALIAS) return *at = 6, PACKBUF_RULE_B2;
  if (!packbuf_i_byte_length(raw->count, raw->dtype, &length)) return *at = 16, PACKBUF_RULE_B4;
  if (raw->storage == PACKBUF_STORED || raw->storage == PACKBUF_ALIAS) {
    if (raw->packing == 0 && raw->length != length) return *at = 32, PACKBUF_RULE_B10;
    if (raw->packing == 1) {
      const packbuf_rule rule = packbuf_i_packed_unsafe(view, raw, length, at);
      if (rule != PACKBUF_RULE_NONE) return rule;
    }
    if (raw->offset > view->total_length || raw->length > view->total_length - raw->offset)
      return *at = 24, PACKBUF_RULE_B11;
    return PACKBUF_RULE_NONE;
  }
  if (raw->packing != 0) return *at = 7, PACKBUF_RULE_B6;
  if (raw->storage == PACKBUF_INLINE && length > 16) return *at = 16, PACKBUF_RULE_B6;
  if (raw->storage == PACKBUF_SEQUENCE &&
      (raw->dtype.code > PACKBUF_DTYPE_UINT || packbuf_i_element_bits(raw->dtype) != 64))
    return *at = 8, PACKBUF_RULE_B8;
  return PACKBUF_RULE_NONE;
}

PACKBUF_API packbuf_status packbuf_get_buffer_at(const packbuf_view *view, uint32_t index, packbuf_buffer *buffer,
                                                 packbuf_error *error) {
  packbuf_i_buffer_record raw;
  packbuf_rule rule;
  unsigned at = 0;
  if (!packbuf_i_fetch_buffer(view, index, &raw))
    return packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "no such buffer", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  rule = packbuf_i_buffer_unsafe(view, &raw, &at);
  if (rule != PACKBUF_RULE_NONE)
    return packbuf_i_broken(error, rule, packbuf_i_buffer_at(view, index) + at, PACKBUF_NOWHERE);
  buffer->index = index;
  buffer->node = raw.node;
  buffer->alias_of = raw.alias_of;
  buffer->role = raw.role;
  buffer->dim = raw.dim;
  buffer->storage = raw.storage;
  buffer->packing = raw.packing;
  buffer->dtype = raw.dtype;
  buffer->count = raw.count;
  buffer->offset = raw.offset;
  buffer->length = raw.length;
  packbuf_i_store64(buffer->value, raw.value[0]);
  packbuf_i_store64(buffer->value + 8, raw.value[1]);
  buffer->bytes = buffer->headers = buffer->payload = NULL;
  buffer->partial = NULL;
  buffer->headers_at = 0;
  buffer->window = NULL;
  if (raw.packing > 1) return PACKBUF_OK;
  if (raw.packing == 1) {
    buffer->headers_at = raw.headers_offset;
    buffer->headers = view->base + raw.headers_offset; /* head and index are always there */
    buffer->payload = raw.offset + raw.length <= view->capacity ? view->base + raw.offset
                                                                : packbuf_i_fetched_whole(view, raw.offset, raw.length);
    if (buffer->payload == NULL) buffer->partial = view;
    return PACKBUF_OK;
  }
  if (raw.storage == PACKBUF_STORED || raw.storage == PACKBUF_ALIAS) {
    if (PACKBUF_I_UNLIKELY(raw.offset + raw.length > view->capacity)) { /* only of a partial view */
      buffer->bytes = packbuf_i_fetched_whole(view, raw.offset, raw.length);
      if (buffer->bytes == NULL) buffer->partial = view;
    } else {
      buffer->bytes = view->base + raw.offset;
    }
  }
  if (raw.storage == PACKBUF_INLINE) {
    (void)packbuf_i_byte_length(raw.count, raw.dtype, &buffer->length); /* at most 16: checked above */
    buffer->offset = packbuf_i_buffer_at(view, index) + 40;
    buffer->bytes = view->base + buffer->offset;
  }
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_get_buffer(const packbuf_view *view, const packbuf_node *node, packbuf_role role,
                                              unsigned dim, packbuf_buffer *buffer, packbuf_error *error) {
  for (uint32_t i = 0; i < node->buffer_count; i++) {
    packbuf_i_buffer_record raw;
    if (!packbuf_i_fetch_buffer(view, node->first_buffer + i, &raw)) break;
    if (raw.node != node->index)
      return packbuf_i_broken(error, PACKBUF_RULE_B1, packbuf_i_buffer_at(view, node->first_buffer + i),
                              PACKBUF_NOWHERE);
    if (raw.role != (uint8_t)role || raw.dim != dim) continue;
    return packbuf_get_buffer_at(view, node->first_buffer + i, buffer, error);
  }
  return packbuf_i_fail(error, PACKBUF_NOT_FOUND, "the node has no such buffer", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

PACKBUF_API packbuf_status packbuf_get_metadata(const packbuf_view *view, uint32_t index, packbuf_metadata *metadata,
                                                packbuf_error *error) {
  uint8_t raw[20];
  uint64_t at;
  if (index >= view->metadata_count)
    return packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "no such metadata", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  at = packbuf_i_metadata_at(view, index);
  memcpy(raw, view->base + at, sizeof raw);
  PACKBUF_I_FETCHED_STRUCT(raw);
  metadata->node = packbuf_i_load32(raw);
  if (!packbuf_i_string(view, packbuf_i_load32(raw + 4), packbuf_i_load32(raw + 8), &metadata->key))
    return packbuf_i_broken(error, PACKBUF_RULE_M3, at + 4, PACKBUF_NOWHERE);
  if (!packbuf_i_string(view, packbuf_i_load32(raw + 12), packbuf_i_load32(raw + 16), &metadata->text))
    return packbuf_i_broken(error, PACKBUF_RULE_M3, at + 12, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* Elements. A packbuf_buffer is a checked copy: `bytes` holds the whole byte length of `count`, so an index below count
 * is all there is to check. Those packed in blocks are unpacked. Elements of an unknown packing are never computed:
 * callers refuse them first, and here they read as absent, as do those that are broken or were not fetched. */

/* Whether the elements are not stored: constant or sequence. */
static int packbuf_i_computed(const packbuf_buffer *buffer) {
  return buffer->bytes == NULL && buffer->partial == NULL && buffer->packing == 0;
}

/* `size` stored bytes at byte `at` of a buffer without `bytes`; 0 when they were not fetched. */
PACKBUF_I_RARE static int packbuf_i_copy_fetched(const packbuf_buffer *buffer, uint64_t at, size_t size, uint8_t *out) {
  return buffer->partial && packbuf_i_gather_fetched(buffer->partial, buffer->offset + at, size, out);
}

/* Element i of `size` bytes, at most 8, as a number. */
PACKBUF_I_RARE static int packbuf_i_get_fetched(const packbuf_buffer *buffer, uint64_t i, size_t size, uint64_t *out) {
  uint8_t raw[8] = {0};
  if (!packbuf_i_copy_fetched(buffer, i * size, size, raw)) return 0;
  *out = packbuf_i_load64(raw);
  return 1;
}

/* `size` stored bytes at byte `at` in place; NULL when they were not fetched, or not in one range. */
static const uint8_t *packbuf_i_in_place(const packbuf_buffer *buffer, uint64_t at, uint64_t size) {
  if (buffer->bytes) return buffer->bytes + at;
  return buffer->partial ? packbuf_i_fetched_whole(buffer->partial, buffer->offset + at, size) : NULL;
}

/* Element i of a buffer of 64-bit integers; 0 when there is none. */
static int packbuf_i_get64(const packbuf_buffer *buffer, uint64_t i, uint64_t *out) {
  if (PACKBUF_I_UNLIKELY(i >= buffer->count || packbuf_i_element_bits(buffer->dtype) != 64)) return 0;
  if (buffer->bytes) {
    *out = packbuf_i_load64(buffer->bytes + i * 8);
    PACKBUF_I_FETCHED(*out);
    return 1;
  }
  if (buffer->packing != 0) return buffer->headers ? packbuf_i_unpack_unit(buffer, 64, i, out) : 0;
  if (PACKBUF_I_UNLIKELY(buffer->partial != NULL)) return packbuf_i_get_fetched(buffer, i, 8, out);
  *out = packbuf_i_load64(buffer->value);
  if (buffer->storage == PACKBUF_SEQUENCE) *out += i * packbuf_i_load64(buffer->value + 8);
  return 1;
}

/* Unit i of a packed buffer of bytes or bits. */
PACKBUF_I_RARE static int packbuf_i_unpack_byte(const packbuf_buffer *buffer, uint64_t i, uint8_t *out) {
  uint64_t unit = 0;
  if (!buffer->headers || !packbuf_i_unpack_unit(buffer, 8, i, &unit)) return 0;
  *out = (uint8_t)unit;
  return 1;
}

/* Element i of a buffer of bytes; 0 when there is none. */
static int packbuf_i_get8(const packbuf_buffer *buffer, uint64_t i, uint8_t *out) {
  if (PACKBUF_I_UNLIKELY(i >= buffer->count || packbuf_i_element_bits(buffer->dtype) != 8)) return 0;
  if (PACKBUF_I_UNLIKELY(buffer->packing != 0)) return packbuf_i_unpack_byte(buffer, i, out);
  if (PACKBUF_I_UNLIKELY(buffer->partial != NULL)) return packbuf_i_copy_fetched(buffer, i, 1, out);
  *out = buffer->bytes ? buffer->bytes[i] : buffer->value[0];
  PACKBUF_I_FETCHED(*out);
  return 1;
}

/* Bits 64 i to 64 i + 63 of a bitmap, zero after its end. */
static uint64_t packbuf_i_get_bits(const packbuf_buffer *buffer, uint64_t i) {
  uint8_t raw[8] = {0};
  uint64_t left, bits;
  if (PACKBUF_I_UNLIKELY(i > (buffer->count >> 6) || packbuf_i_element_bits(buffer->dtype) != 1)) return 0;
  left = buffer->count - i * 64;
  if (PACKBUF_I_UNLIKELY(buffer->packing != 0)) {
    const uint64_t size = left >= 57 ? 8 : (left + 7) / 8;
    if (!buffer->headers || !packbuf_i_unpack_bits(buffer, i, size, raw)) return 0;
    bits = packbuf_i_load64(raw);
  } else if (buffer->bytes == NULL) {
    bits = buffer->value[0] ? UINT64_MAX : 0;
  } else {
    const size_t size = left >= 57 ? 8 : (size_t)((left + 7) / 8);
    if (PACKBUF_I_UNLIKELY(size < 8)) memcpy(raw, buffer->bytes + i * 8, size);
    else memcpy(raw, buffer->bytes + i * 8, 8);
    bits = packbuf_i_load64(raw);
    PACKBUF_I_FETCHED(bits);
  }
  return left >= 64 ? bits : bits & ((UINT64_C(1) << left) - 1);
}

/* Bit i of a bitmap; 0 beyond its end. */
static int packbuf_i_get_bit(const packbuf_buffer *buffer, uint64_t i) {
  uint8_t byte;
  if (PACKBUF_I_UNLIKELY(i >= buffer->count || packbuf_i_element_bits(buffer->dtype) != 1)) return 0;
  if (PACKBUF_I_UNLIKELY(buffer->packing != 0))
    return packbuf_i_unpack_byte(buffer, i / 8, &byte) && (byte >> (i % 8) & 1);
  if (buffer->bytes == NULL) return buffer->value[0] != 0;
  byte = buffer->bytes[i / 8];
  PACKBUF_I_FETCHED(byte);
  return byte >> (i % 8) & 1;
}

/* Where element i of a buffer lies, for errors. Computed elements lie in the record's value, packed ones at the header
 * of their block. */
static uint64_t packbuf_i_element_at(const packbuf_view *view, const packbuf_buffer *buffer, uint64_t i) {
  const uint64_t bits = packbuf_i_element_bits(buffer->dtype);
  if (buffer->headers) return buffer->headers_at + i / (PACKBUF_I_BLOCK_BYTES * UINT64_C(8) / bits) * 16;
  if (packbuf_i_computed(buffer)) return packbuf_i_buffer_at(view, buffer->index) + 40;
  return buffer->offset + (bits < 8 ? i * bits / 8 : i * (bits / 8));
}

/* packbuf_get_typed for elements at `bytes`, which is where `buffer` says or within it; NULL: they are computed. */
static packbuf_status packbuf_i_typed_at(const packbuf_buffer *buffer, const uint8_t *bytes, packbuf_dtype dtype,
                                         const void **elements, packbuf_error *error) {
  uint32_t bits = packbuf_i_element_bits(dtype), size = bits < 8 ? 1 : bits / 8;
  if (!packbuf_i_dtype_equal(buffer->dtype, dtype))
    return packbuf_i_fail(error, PACKBUF_WRONG_TYPE, "the buffer has another dtype", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (buffer->packing > 1)
    return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_PACKING, "a packing that this reader does not know",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (buffer->packing != 0)
    return packbuf_i_fail(error, PACKBUF_NOT_STORED, "the elements are packed: copy rows out with packbuf_select_copy",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (bytes == NULL)
    return packbuf_i_fail(error, PACKBUF_NOT_STORED,
                          "the elements are computed (constant or sequence): copy rows out with packbuf_select_copy",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (size > 1 && packbuf_i_big_endian())
    return packbuf_i_fail(error, PACKBUF_NOT_STORED,
                          "the elements are in another byte order than this machine's: copy rows out with "
                          "packbuf_select_copy",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (dtype.code == PACKBUF_DTYPE_COMPLEX) size /= 2; /* aligned as the floats they are made of */
  if (size > 8) size = 8;
  if ((size & (size - 1)) == 0 && ((uintptr_t)bytes & (size - 1)) != 0)
    return packbuf_i_fail(error, PACKBUF_UNALIGNED,
                          "the bytes are not aligned for typed access: copy rows out with packbuf_select_copy",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  *elements = bytes;
  return PACKBUF_OK;
}

/* Elements that could not be read, by the bytes that they take plain: those of a partial view are not there, packed
 * ones may be broken. */
PACKBUF_I_RARE static packbuf_status packbuf_i_not_fetched(const packbuf_buffer *buffer, uint64_t at, uint64_t size,
                                                           uint64_t row, packbuf_error *error) {
  const packbuf_view *view = buffer->partial;
  if (buffer->headers) {
    const unsigned unit = packbuf_i_unit_bits(buffer->dtype) / 8;
    const packbuf_rule rule = packbuf_i_not_unpacked(buffer, at / unit, (size + unit - 1) / unit, &at, &size);
    if (rule != PACKBUF_RULE_NONE) return packbuf_i_broken(error, rule, at, row);
    at -= buffer->offset;
  }
  packbuf_i_fail(error, PACKBUF_NOT_FETCHED, packbuf_status_text(PACKBUF_NOT_FETCHED),
                 packbuf_i_not_fetched_at(view, buffer->offset + at, size), row);
  if (error) packbuf_node_path(view, buffer->node, error->path, sizeof error->path);
  return PACKBUF_NOT_FETCHED;
}

PACKBUF_API packbuf_status packbuf_get_typed(const packbuf_buffer *buffer, packbuf_dtype dtype, const void **elements,
                                             packbuf_error *error) {
  if (buffer->partial && !buffer->packing)
    return packbuf_i_not_fetched(buffer, 0, buffer->length, PACKBUF_NOWHERE, error);
  return packbuf_i_typed_at(buffer, buffer->bytes, dtype, elements, error);
}

/* Writes the bytes of `count` computed elements: constants by doubling what is written, sequences one by one;
 * little-endian. */
static void packbuf_i_compute(const packbuf_buffer *buffer, uint64_t first, size_t count, size_t element,
                              uint8_t *out) {
  const size_t size = count * element;
  if (buffer->storage == PACKBUF_SEQUENCE) {
    const uint64_t start = packbuf_i_load64(buffer->value), step = packbuf_i_load64(buffer->value + 8);
    for (size_t i = 0; i < count; i++) packbuf_i_store64(out + 8 * i, start + (first + i) * step);
    return;
  }
  if (size == 0) return;
  memcpy(out, buffer->value, element);
  for (size_t done = element; done < size;) {
    const size_t part = done < size - done ? done : size - done;
    memcpy(out + done, out, part);
    done += part;
  }
}

/* Elements first to first + count in native byte order to out, which has room for them. The caller has checked the
 * range, that the packing is known and that elements are whole bytes. 0 when some are broken or were not fetched:
 * packbuf_i_not_fetched says what. */
static int packbuf_i_copy_native(const packbuf_buffer *buffer, uint64_t first, size_t count, uint8_t *out) {
  const size_t element = packbuf_i_element_bits(buffer->dtype) / 8;
  if (buffer->headers) return packbuf_i_unpack_units(buffer, first, count, out);
  if (buffer->bytes) {
    if (count) memcpy(out, buffer->bytes + first * element, count * element);
  } else if (buffer->partial) {
    if (!packbuf_i_copy_fetched(buffer, first * element, count * element, out)) return 0;
  } else {
    packbuf_i_compute(buffer, first, count, element, out);
  }
  if (packbuf_i_big_endian() && packbuf_i_dtype_known(buffer->dtype))
    packbuf_i_swap(out, (uint64_t)count * element, packbuf_i_swap_unit(buffer->dtype));
  return 1;
}

/* Bits first to first + count (first a multiple of 8) to out, zero after the last. Their bytes fit in memory; their
 * number may not fit a size_t. 0 as above. */
static int packbuf_i_copy_bits(const packbuf_buffer *buffer, uint64_t first, uint64_t count, uint8_t *out) {
  const size_t size = (size_t)(count / 8 + (count % 8 != 0));
  if (size == 0) return 1;
  if (buffer->headers && !packbuf_i_unpack_units(buffer, first / 8, size, out)) return 0;
  if (!buffer->headers) {
    if (buffer->bytes) memcpy(out, buffer->bytes + first / 8, size);
    else memset(out, buffer->value[0] ? 0xFF : 0, size);
  }
  if (count % 8) out[size - 1] = (uint8_t)(out[size - 1] & ((1u << count % 8) - 1));
  return 1;
}

/* Whether `count` elements from `first` on can be copied out, and the bytes that they are. */
static packbuf_status packbuf_i_may_copy(const packbuf_view *view, const packbuf_buffer *buffer, uint64_t first,
                                         uint64_t count, uint64_t *size, packbuf_error *error) {
  const uint32_t bits = packbuf_i_element_bits(buffer->dtype);
  if (buffer->packing > 1)
    return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_PACKING, "a packing that this reader does not know",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (first > buffer->count || count > buffer->count - first)
    return packbuf_i_fail(error, PACKBUF_OUT_OF_RANGE, "the buffer has fewer elements",
                          packbuf_i_buffer_at(view, buffer->index) + 16, PACKBUF_NOWHERE);
  if ((bits != 1 && bits % 8 != 0) || (bits > 128 && packbuf_i_computed(buffer)))
    return packbuf_i_fail(error, PACKBUF_UNSUPPORTED_DTYPE,
                          "elements that are not whole bytes, or too large for a constant", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (bits == 1 && buffer->partial && !buffer->headers)
    return packbuf_i_not_fetched(buffer, 0, buffer->length, PACKBUF_NOWHERE, error);
  if (bits == 1 && first % 8 != 0)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "bits are copied from a multiple of 8", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (!packbuf_i_byte_length(count, buffer->dtype, size) || *size > view->limits.decoded_bytes)
    return packbuf_i_broken(error, PACKBUF_RULE_D9, packbuf_i_buffer_at(view, buffer->index) + 16, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_copy_elements(const packbuf_view *view, const packbuf_buffer *buffer, uint64_t first,
                                                 uint64_t count, void *dst, uint64_t capacity, packbuf_error *error) {
  const uint32_t bits = packbuf_i_element_bits(buffer->dtype);
  uint64_t size = 0;
  int copied;
  const packbuf_status status = packbuf_i_may_copy(view, buffer, first, count, &size, error);
  if (status != PACKBUF_OK) return status;
  if (size > capacity || size > SIZE_MAX)
    return packbuf_i_too_small(error, "the destination is too small", PACKBUF_NOWHERE, size);
  copied = bits == 1 ? packbuf_i_copy_bits(buffer, first, count, (uint8_t *)dst)
                     : packbuf_i_copy_native(buffer, first, (size_t)count, (uint8_t *)dst);
  return copied
             ? PACKBUF_OK
             : packbuf_i_not_fetched(buffer, bits == 1 ? first / 8 : first * (bits / 8), size, PACKBUF_NOWHERE, error);
}
