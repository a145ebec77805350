/* core/verify.c: deep verification: the I rules (index checksum, padding, packed blocks, masks, lengths; offsets,
 * shapes and types by codec) and the D rules (data checksums, padding, packed blocks, limits; cells by codec). One pass
 * each, in the order of section 13; allocates nothing. Linear: masks go by words, and rows of which nothing is stored
 * are not counted out.
 * May use: base, crc32c, blocks, packed, access, open, tables, cells, pieces; the codecs' reading halves. Must not
 * know: values. */

/* A dict or list around the node in turn, with what its children are checked against. */
typedef struct packbuf_i_verify_node {
  uint32_t index, last;
  uint64_t position;            /* of the next child */
  uint64_t shortest, longest;   /* of the lengths of a list's present rows; shortest UINT64_MAX: there are none */
  uint8_t kind, masked, absent; /* masked: it has a validity mask; absent: some row is */
  uint8_t readable;             /* validity and lengths are */
} packbuf_i_verify_node;

typedef struct packbuf_i_verifier {
  const packbuf_view *view;
  packbuf_error *error;
  uint64_t *aliased;
  uint32_t depth;
  packbuf_i_verify_node path[PACKBUF_I_DEPTH_CAP];
} packbuf_i_verifier;

static packbuf_status packbuf_i_verify_zero(const packbuf_view *view, packbuf_rule rule, uint64_t from, uint64_t to,
                                            uint32_t node, packbuf_error *error) {
  for (uint64_t i = from; i < to; i++) {
    if (view->base[i] != 0) return packbuf_i_broken_node(error, view, rule, i, node, PACKBUF_NOWHERE);
  }
  return PACKBUF_OK;
}

/* I2: walks the buffers of the index and looks between them. */
static packbuf_status packbuf_i_verify_index_padding(const packbuf_view *view, packbuf_error *error) {
  packbuf_i_cursors c = packbuf_i_start_cursors(view);
  const uint64_t sums = view->optional_features & 1 ? packbuf_i_chunks(c.data_end - c.data) * 4 : 0;
  packbuf_status status;
  if (c.index > c.index_end) return packbuf_i_broken(error, PACKBUF_RULE_B12, 40, PACKBUF_NOWHERE);
  status = packbuf_i_verify_zero(view, PACKBUF_RULE_I2, view->head_length + sums, c.index, PACKBUF_NO_NODE, error);
  for (uint32_t i = 0; status == PACKBUF_OK && i < view->buffer_count; i++) {
    packbuf_i_buffer_record b;
    uint64_t unpacked, headers;
    const uint64_t at = packbuf_i_buffer_at(view, i);
    if (!packbuf_i_fetch_buffer(view, i, &b) || b.storage != PACKBUF_STORED) continue;
    if (!packbuf_i_byte_length(b.count, b.dtype, &unpacked))
      return packbuf_i_broken(error, PACKBUF_RULE_B4, at + 16, PACKBUF_NOWHERE);
    headers = packbuf_i_headers_length(unpacked);
    if (b.packing != 0) {
      if (!packbuf_i_pass(&c.index, c.index_end, c.mask, b.headers_offset, headers))
        return packbuf_i_broken(error, PACKBUF_RULE_B11, at + 56, PACKBUF_NOWHERE);
      status = packbuf_i_verify_zero(view, PACKBUF_RULE_I2, b.headers_offset + headers, c.index, b.node, error);
    }
    if (status != PACKBUF_OK || b.role == PACKBUF_ROLE_DATA) continue;
    if (!packbuf_i_pass_stored(&c, &b)) return packbuf_i_broken(error, PACKBUF_RULE_B11, at + 24, PACKBUF_NOWHERE);
    status = packbuf_i_verify_zero(view, PACKBUF_RULE_I2, b.offset + b.length, c.index, b.node, error);
  }
  return status;
}

/* D2: the same for the data, the plain buffers first. */
static packbuf_status packbuf_i_verify_data_padding(const packbuf_view *view, packbuf_error *error) {
  packbuf_i_cursors c = packbuf_i_start_cursors(view);
  packbuf_status status = PACKBUF_OK;
  for (unsigned packed = 0; packed < 2; packed++)
    for (uint32_t i = 0; status == PACKBUF_OK && i < view->buffer_count; i++) {
      packbuf_i_buffer_record b;
      if (!packbuf_i_fetch_buffer(view, i, &b) || b.storage != PACKBUF_STORED || b.role != PACKBUF_ROLE_DATA ||
          (b.packing != 0) != packed)
        continue;
      if (!packbuf_i_pass_stored(&c, &b))
        return packbuf_i_broken(error, PACKBUF_RULE_B11, packbuf_i_buffer_at(view, i) + 24, PACKBUF_NOWHERE);
      status =
          packbuf_i_verify_zero(view, PACKBUF_RULE_D2, b.offset + b.length, packed ? c.packed : c.data, b.node, error);
    }
  return status;
}

/* I15 and I16 of block k: its header, and where its payload ends. record: where the buffer's lies. */
static packbuf_status packbuf_i_verify_header(const packbuf_buffer *b, uint64_t record, uint64_t k, uint64_t blocks,
                                              packbuf_error *error) {
  const uint64_t at = b->headers_at + k * 16, end_at = k + 1 < blocks ? at + 16 + 8 : record + 32;
  const unsigned bits = packbuf_i_unit_bits(b->dtype);
  packbuf_i_packed packed;
  const int found = packbuf_i_find_block(b, k, &packed), wrong = packbuf_i_block_unsound(&packed.block, bits);
  uint32_t size;
  if (wrong >= 0) return packbuf_i_broken(error, PACKBUF_RULE_I15, at + (unsigned)wrong, PACKBUF_NOWHERE);
  if (k == 0 && packed.block.place != 0) return packbuf_i_broken(error, PACKBUF_RULE_I16, at + 8, PACKBUF_NOWHERE);
  if (!found) return packbuf_i_broken(error, PACKBUF_RULE_I16, end_at, PACKBUF_NOWHERE);
  size = packbuf_i_block_size(&packed.block, bits, packed.units);
  return size == UINT32_MAX || size == packed.size ? PACKBUF_OK
                                                   : packbuf_i_broken(error, PACKBUF_RULE_I16, end_at, PACKBUF_NOWHERE);
}

/* I17 or D10 of block k: its payload. */
static packbuf_status packbuf_i_verify_payload(const packbuf_buffer *b, uint64_t k, packbuf_error *error) {
  packbuf_i_packed packed;
  const int found = packbuf_i_find_block(b, k, &packed);
  return found && packbuf_i_block_whole(&packed.block, packed.payload, packed.size, packed.bits, packed.units)
             ? PACKBUF_OK
             : packbuf_i_broken(error, b->role == PACKBUF_ROLE_DATA ? PACKBUF_RULE_D10 : PACKBUF_RULE_I17,
                                found ? b->offset + packed.at : b->headers_at + k * 16, PACKBUF_NOWHERE);
}

/* The stored buffers that are packed in blocks: their headers (I15, I16) and, of the index, payloads (I17); or (D10)
 * the payloads of the data. */
static packbuf_status packbuf_i_verify_blocks(const packbuf_view *view, int data, packbuf_error *error) {
  for (uint32_t i = 0; i < view->buffer_count; i++) {
    packbuf_buffer b;
    uint64_t blocks;
    packbuf_status status = packbuf_get_buffer_at(view, i, &b, error);
    if (status != PACKBUF_OK) return status;
    if (b.storage != PACKBUF_STORED || !b.headers || (data && b.role != PACKBUF_ROLE_DATA)) continue;
    blocks = packbuf_block_count(&b);
    for (uint64_t k = 0; !data && status == PACKBUF_OK && k < blocks; k++)
      status = packbuf_i_verify_header(&b, packbuf_i_buffer_at(view, i), k, blocks, error);
    for (uint64_t k = 0; (data || b.role != PACKBUF_ROLE_DATA) && status == PACKBUF_OK && k < blocks; k++)
      status = packbuf_i_verify_payload(&b, k, error);
    if (status != PACKBUF_OK) return status;
  }
  return PACKBUF_OK;
}

/* I3 of one mask. */
static packbuf_status packbuf_i_verify_mask(const packbuf_column *c, const packbuf_buffer *mask, packbuf_error *error) {
  const unsigned used = (unsigned)(mask->count % 8);
  uint8_t last;
  if ((mask->bytes == NULL && mask->headers == NULL) || used == 0) return PACKBUF_OK;
  if (mask->headers) {
    if (!packbuf_i_unpack_byte(mask, mask->count / 8, &last)) return PACKBUF_OK; /* I17 has said so */
  } else {
    last = mask->bytes[mask->count / 8];
  }
  PACKBUF_I_FETCHED(last);
  return last >> used == 0
             ? PACKBUF_OK
             : packbuf_i_broken_cell(c, PACKBUF_RULE_I3, packbuf_i_element_at(c->view, mask, mask->count - used),
                                     PACKBUF_NOWHERE, error);
}

/* The rows 64 w to 64 w + 63 that there are. */
static uint64_t packbuf_i_row_bits(uint64_t rows, uint64_t w) {
  const uint64_t left = rows - w * 64;
  return left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
}

static uint64_t packbuf_i_valid_bits(const packbuf_column *c, uint64_t w) {
  if (packbuf_i_there(&c->validity)) return packbuf_i_get_bits(&c->validity, w);
  return c->node.kind == PACKBUF_LEAF && c->node.codec == PACKBUF_CODEC_NULL ? 0 : packbuf_i_row_bits(c->node.rows, w);
}

static uint64_t packbuf_i_missing_bits(const packbuf_column *c, uint64_t w) {
  return packbuf_i_there(&c->missing) ? packbuf_i_get_bits(&c->missing, w) : 0;
}

/* Words to look at: those of the rows to check. */
static uint64_t packbuf_i_words_to_check(uint64_t rows, const packbuf_buffer *const *buffers, unsigned count) {
  rows = packbuf_i_rows_to_check(rows, buffers, count);
  return rows / 64 + (rows % 64 != 0);
}

/* I3 and I4. */
static packbuf_status packbuf_i_verify_masks(const packbuf_column *c, packbuf_error *error) {
  const packbuf_buffer *with[2];
  const uint64_t at = packbuf_i_buffer_at(c->view, c->missing.index);
  packbuf_status status = packbuf_i_verify_mask(c, &c->validity, error);
  uint64_t words;
  if (status == PACKBUF_OK) status = packbuf_i_verify_mask(c, &c->missing, error);
  if (status != PACKBUF_OK || !packbuf_i_there(&c->missing)) return status;
  if (!packbuf_i_there(&c->validity))
    return c->node.kind == PACKBUF_LEAF && c->node.codec == PACKBUF_CODEC_NULL
               ? PACKBUF_OK
               : packbuf_i_broken_cell(c, PACKBUF_RULE_I4, at, PACKBUF_NOWHERE, error);
  if (!packbuf_i_readable(&c->validity) || !packbuf_i_readable(&c->missing)) return PACKBUF_OK;
  with[0] = &c->validity, with[1] = &c->missing;
  words = packbuf_i_words_to_check(c->node.rows, with, 2);
  for (uint64_t w = 0; w < words; w++) {
    const uint64_t both = packbuf_i_get_bits(&c->validity, w) & packbuf_i_get_bits(&c->missing, w);
    if (both) return packbuf_i_broken_cell(c, PACKBUF_RULE_I4, at, w * 64 + packbuf_i_first_set(both), error);
  }
  return PACKBUF_OK;
}

/* I5: where the parent is absent the child is null and not missing. */
static packbuf_status packbuf_i_verify_under_absent(const packbuf_column *c, const packbuf_column *up,
                                                    packbuf_error *error) {
  const packbuf_buffer *with[3];
  uint64_t words;
  with[0] = &c->validity, with[1] = &c->missing, with[2] = &up->validity;
  words = packbuf_i_words_to_check(c->node.rows, with, 3);
  for (uint64_t w = 0; w < words; w++) {
    const uint64_t wrong = ~packbuf_i_get_bits(&up->validity, w) & packbuf_i_row_bits(c->node.rows, w) &
                           (packbuf_i_valid_bits(c, w) | packbuf_i_missing_bits(c, w));
    if (wrong)
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I5,
                                   packbuf_i_there(&c->validity) ? packbuf_i_buffer_at(c->view, c->validity.index)
                                                                 : packbuf_i_node_at(c->view, c->node.index),
                                   w * 64 + packbuf_i_first_set(wrong), error);
  }
  return PACKBUF_OK;
}

/* I6: item `position` of a list is missing exactly in the present rows that are shorter. A computed mask is
 * compared with the extremes of the lengths only. */
static packbuf_status packbuf_i_verify_item(const packbuf_column *c, const packbuf_column *up,
                                            const packbuf_i_verify_node *list, packbuf_error *error) {
  const packbuf_buffer *with[3];
  const uint64_t position = list->position;
  uint64_t rows;
  if ((c->missing.bytes == NULL && c->missing.headers == NULL) || c->missing.count == 0) {
    const int all = packbuf_i_there(&c->missing) && packbuf_i_get_bit(&c->missing, 0);
    if (all ? !list->absent && (list->shortest == UINT64_MAX || list->longest <= position)
            : list->shortest == UINT64_MAX || list->shortest > position)
      return PACKBUF_OK;
  }
  with[0] = &c->missing, with[1] = &up->validity, with[2] = &up->lengths;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 3);
  if (rows < c->node.rows)
    rows = c->node.rows - rows < position
               ? c->node.rows
               : rows + position; /* a sequence of lengths passes the item within as many rows */
  for (uint64_t row = 0; row < rows; row++) {
    uint64_t length = 0;
    const int here = packbuf_i_present(up, row) && packbuf_i_get64(&up->lengths, row, &length);
    if ((here && length <= position) != (packbuf_i_there(&c->missing) && packbuf_i_get_bit(&c->missing, row)))
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I6,
                                   packbuf_i_there(&c->missing) ? packbuf_i_buffer_at(c->view, c->missing.index)
                                                                : packbuf_i_node_at(c->view, c->node.index),
                                   row, error);
  }
  return PACKBUF_OK;
}

/* I8 and I9 of a list node; the extremes of its lengths in *list. */
static packbuf_status packbuf_i_verify_lengths(const packbuf_column *c, packbuf_i_verify_node *list,
                                               packbuf_error *error) {
  const packbuf_buffer *with[2];
  const uint64_t begin = (uint64_t)c->node.index + 1,
                 children = packbuf_i_count_siblings(c->view, begin, begin + c->node.descendants);
  uint64_t rows, wrong = UINT64_MAX;
  with[0] = &c->lengths, with[1] = &c->validity;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 2);
  if (rows < c->node.rows)
    rows =
        c->node.rows - rows < children
            ? c->node.rows
            : rows + children; /* a sequence of lengths leaves the range 0 to children within as many rows, or never */
  for (uint64_t row = 0; row < rows; row++) {
    uint64_t length = 0;
    (void)packbuf_i_get64(&c->lengths, row, &length);
    if (packbuf_i_present(c, row)) {
      if (length < list->shortest) list->shortest = length;
      if (length > list->longest) list->longest = length;
    } else {
      list->absent = 1;
      if (length != 0)
        return packbuf_i_broken_cell(c, PACKBUF_RULE_I8, packbuf_i_element_at(c->view, &c->lengths, row), row, error);
    }
    if (length > children && wrong == UINT64_MAX) wrong = row; /* I9 comes after I8 */
  }
  return wrong == UINT64_MAX ? PACKBUF_OK
                             : packbuf_i_broken_cell(c, PACKBUF_RULE_I9,
                                                     packbuf_i_element_at(c->view, &c->lengths, wrong), wrong, error);
}

/* D9 for the aliases of a node in one section, and for what is packed: each is walked at its full length, whatever is
 * stored of it, so they are charged together. *aliased: bytes so far. */
static packbuf_status packbuf_i_verify_aliases(const packbuf_column *c, int data, uint64_t *aliased,
                                               packbuf_error *error) {
  for (uint32_t i = 0; i < c->node.buffer_count; i++) {
    packbuf_i_buffer_record b;
    uint64_t length;
    const uint32_t index = c->node.first_buffer + i;
    if (!packbuf_i_fetch_buffer(c->view, index, &b) || (b.storage != PACKBUF_ALIAS && b.packing == 0) ||
        b.packing > 1 || !packbuf_i_known_role(b.role) || (b.role == PACKBUF_ROLE_DATA) != data)
      continue;
    if (!packbuf_i_byte_length(b.count, b.dtype, &length) || length > c->view->limits.decoded_bytes - *aliased)
      return packbuf_i_broken_cell(c, PACKBUF_RULE_D9, packbuf_i_buffer_at(c->view, index) + 16, PACKBUF_NOWHERE,
                                   error);
    *aliased += length;
  }
  return PACKBUF_OK;
}

/* I5 and I6 of a node under a dict or list, whose own buffers are walked again for each child: D9 charges them again.
 */
static packbuf_status packbuf_i_verify_child(packbuf_i_verifier *v, const packbuf_column *c,
                                             packbuf_i_verify_node *up_node) {
  packbuf_column up;
  packbuf_i_unit_windows windows;
  packbuf_status status, unreadable;
  const int list = up_node->kind == PACKBUF_NODE_LIST;
  if (up_node->kind == PACKBUF_LEAF || (!list && !up_node->masked) || !packbuf_i_readable(&c->validity) ||
      !packbuf_i_readable(&c->missing))
    return PACKBUF_OK;
  status = packbuf_i_load_column(v->view, up_node->index, &up, &unreadable, v->error);
  if (status == PACKBUF_OK &&
      c->node.rows !=
          up.node.rows) /* both were fetched anew: what the buffers were counted by need not be what was checked */
    return packbuf_i_broken_cell(c, PACKBUF_RULE_N9, packbuf_i_node_at(v->view, c->node.index) + 48, PACKBUF_NOWHERE,
                                 v->error);
  if (status != PACKBUF_OK || !packbuf_i_readable(&up.validity)) return status;
  status = packbuf_i_verify_aliases(&up, 0, v->aliased, v->error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_open_windows(&up, &windows);
  if (packbuf_i_there(&up.validity)) status = packbuf_i_verify_under_absent(c, &up, v->error);
  if (status == PACKBUF_OK && list && up_node->readable) status = packbuf_i_verify_item(c, &up, up_node, v->error);
  return status;
}

/* D9 for the aliases of one node in the index, then I3 to I14. */
static packbuf_status packbuf_i_verify_node_index(packbuf_i_verifier *v, uint32_t index) {
  packbuf_i_verify_node *up, *self;
  packbuf_column c, copy;
  const packbuf_column *stored;
  packbuf_i_unit_windows windows;
  packbuf_status unreadable, status = packbuf_i_load_column(v->view, index, &c, &unreadable, v->error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_open_windows(&c, &windows);
  while (v->depth > 0 && v->path[v->depth - 1].last < index) v->depth--;
  up = v->depth ? &v->path[v->depth - 1] : NULL;
  status = packbuf_i_verify_aliases(&c, 0, v->aliased, v->error);
  if (status == PACKBUF_OK) status = packbuf_i_verify_masks(&c, v->error);
  if (status == PACKBUF_OK && up) {
    status = packbuf_i_verify_child(v, &c, up);
    up->position++;
  }
  if (status != PACKBUF_OK) return status;
  if (!packbuf_i_complete(&c) && (unreadable == PACKBUF_OK || unreadable == PACKBUF_UNSUPPORTED_PACKING ||
                                  unreadable == PACKBUF_UNSUPPORTED_DTYPE))
    return packbuf_i_broken_cell(&c, PACKBUF_RULE_B13, packbuf_i_node_at(v->view, index) + 16, PACKBUF_NOWHERE,
                                 v->error);
  if (c.node.descendants != 0 || c.node.kind == PACKBUF_NODE_LIST) {
    if (v->depth >= PACKBUF_I_DEPTH_CAP)
      return packbuf_i_broken_cell(&c, PACKBUF_RULE_N3, packbuf_i_node_at(v->view, index), PACKBUF_NOWHERE, v->error);
    self = &v->path[v->depth++];
    memset(self, 0, sizeof *self);
    self->index = index;
    self->last = index + c.node.descendants;
    self->shortest = UINT64_MAX;
    self->kind = (uint8_t)c.node.kind;
    self->masked = (uint8_t)packbuf_i_there(&c.validity);
    self->readable = unreadable == PACKBUF_OK;
    if (c.node.kind == PACKBUF_NODE_LIST && unreadable == PACKBUF_OK)
      return packbuf_i_verify_lengths(&c, self, v->error);
  }
  if (c.node.kind != PACKBUF_LEAF || unreadable == PACKBUF_UNSUPPORTED_CODEC || unreadable == PACKBUF_UNSUPPORTED_ROLE)
    return PACKBUF_OK;
  stored = packbuf_i_stored_column(&c, &copy);
  status = packbuf_i_codec_reader_of(c.node.codec)->index(stored, v->error);
  if (status == PACKBUF_OK) status = packbuf_i_verify_row_index(&c, v->error);
  return status != PACKBUF_OK ? status : packbuf_i_verify_prefixes(stored, v->error);
}

static packbuf_status packbuf_i_verify_index(const packbuf_view *view, uint64_t *aliased, packbuf_error *error) {
  packbuf_i_verifier v;
  packbuf_status status;
  if (packbuf_i_crc_kernel_best()->crc(0, view->base + view->head_length, (size_t)view->index_length) !=
      view->index_checksum)
    return packbuf_i_broken(error, PACKBUF_RULE_I1, 56, PACKBUF_NOWHERE);
  v.view = view;
  v.error = error;
  v.aliased = aliased;
  v.depth = 0;
  status = packbuf_i_verify_index_padding(view, error);
  if (status == PACKBUF_OK) status = packbuf_i_verify_blocks(view, 0, error);
  for (uint32_t index = 0; status == PACKBUF_OK && index < view->node_count; index++)
    status = packbuf_i_verify_node_index(&v, index);
  return status;
}

/* D1: one checksum for each 64 KiB of data. */
static packbuf_status packbuf_i_verify_checksums(const packbuf_view *view, packbuf_error *error) {
  const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
  const uint8_t *checksum = view->base + view->head_length;
  uint64_t at = view->head_length + view->index_length;
  if ((view->optional_features & 1) == 0) return PACKBUF_OK;
  for (; at < view->total_length; at += PACKBUF_I_CHUNK, checksum += 4) {
    const uint64_t left = view->total_length - at;
    if (kernel->crc(0, view->base + at, (size_t)(left < PACKBUF_I_CHUNK ? left : PACKBUF_I_CHUNK)) !=
        packbuf_i_load32(checksum))
      return packbuf_i_broken(error, PACKBUF_RULE_D1, at, PACKBUF_NOWHERE);
  }
  return PACKBUF_OK;
}

/* D9 for the buffers of a node, then D3 to D9 for its cells. */
static packbuf_status packbuf_i_verify_node_data(const packbuf_view *view, uint32_t index, uint64_t *aliased,
                                                 packbuf_error *error) {
  packbuf_column c, stored;
  packbuf_status unreadable, status = packbuf_i_load_column(view, index, &c, &unreadable, error);
  if (status != PACKBUF_OK) return status;
  for (uint32_t i = 0; i < c.node.buffer_count; i++) {
    packbuf_i_buffer_record b;
    uint64_t length;
    if (!packbuf_i_fetch_buffer(view, c.node.first_buffer + i, &b) || !packbuf_i_known_role(b.role) || b.packing > 1)
      continue;
    if (!packbuf_i_byte_length(b.count, b.dtype, &length) || length > view->limits.decoded_bytes)
      return packbuf_i_broken_cell(&c, PACKBUF_RULE_D9, packbuf_i_buffer_at(view, c.node.first_buffer + i) + 16,
                                   PACKBUF_NOWHERE, error);
  }
  status = packbuf_i_verify_aliases(&c, 1, aliased, error);
  if (status != PACKBUF_OK) return status;
  if (c.node.kind != PACKBUF_LEAF || c.node.codec == PACKBUF_CODEC_NULL || unreadable == PACKBUF_UNSUPPORTED_CODEC ||
      unreadable == PACKBUF_UNSUPPORTED_ROLE)
    return PACKBUF_OK;
  if (!packbuf_i_readable(&c.data) || !packbuf_i_complete(&c)) return PACKBUF_OK;
  return packbuf_i_codec_reader_of(c.node.codec)->data(packbuf_i_stored_column(&c, &stored), error);
}

static packbuf_status packbuf_i_verify_data(const packbuf_view *view, uint64_t *aliased, packbuf_error *error) {
  packbuf_status status = packbuf_i_verify_checksums(view, error);
  if (status == PACKBUF_OK) status = packbuf_i_verify_data_padding(view, error);
  if (status == PACKBUF_OK) status = packbuf_i_verify_blocks(view, 1, error);
  for (uint32_t index = 0; status == PACKBUF_OK && index < view->node_count; index++)
    status = packbuf_i_verify_node_data(view, index, aliased, error);
  return status;
}

PACKBUF_API packbuf_status packbuf_verify(const packbuf_view *view, packbuf_level level, packbuf_error *error) {
  uint64_t aliased = 0;
  packbuf_view now; /* the head is checked again, and what it says now is what the rest is checked against */
  packbuf_status status = packbuf_i_open(&now, view->base, view->capacity, 1, view->fetched, view->fetched_count,
                                         PACKBUF_OPEN_TABLES, &view->limits, error);
  if (status != PACKBUF_OK) return status;
  if (now.head_checksum != view->head_checksum || now.head_length != view->head_length ||
      now.total_length != view->total_length)
    return packbuf_i_fail(error, PACKBUF_HEAD_CHECKSUM, "the head has changed since it was opened", 60,
                          PACKBUF_NOWHERE);
  if (level >= PACKBUF_LEVEL_INDEX) status = packbuf_i_verify_index(&now, &aliased, error);
  if (status == PACKBUF_OK && level >= PACKBUF_LEVEL_FULL && now.capacity < now.total_length)
    return packbuf_i_fail(error, PACKBUF_NOT_FETCHED,
                          "the view is partial: verify up to level index, then packbuf_verify_fetched", now.capacity,
                          PACKBUF_NOWHERE);
  if (status == PACKBUF_OK && level >= PACKBUF_LEVEL_FULL) status = packbuf_i_verify_data(&now, &aliased, error);
  return status;
}

PACKBUF_API packbuf_status packbuf_verify_fetched(const packbuf_view *view, uint64_t *chunks, packbuf_error *error) {
  const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
  const uint64_t data = view->head_length + view->index_length;
  uint64_t checked = 0, at = data;
  if (chunks) *chunks = 0;
  if ((view->optional_features & 1) == 0) return PACKBUF_OK;
  if (packbuf_i_chunks(view->total_length - data) > view->index_length / 4)
    return packbuf_i_broken(error, PACKBUF_RULE_B12, 40, PACKBUF_NOWHERE);
  while (at < view->total_length) {
    const uint64_t left = view->total_length - at, size = left < PACKBUF_I_CHUNK ? left : PACKBUF_I_CHUNK;
    const uint64_t end = packbuf_i_not_fetched_at(view, at, size);
    uint32_t crc = 0;
    if (end != at + size) {
      at = packbuf_i_next_fetched(view, end);
      at = data + packbuf_i_chunks(at - data) * PACKBUF_I_CHUNK;
      continue;
    }
    for (uint64_t done = 0, there = 0; done < size; done += there) {
      const uint8_t *bytes = packbuf_i_fetched_at(view, at + done, &there);
      if (there > size - done) there = size - done;
      crc = kernel->crc(crc, bytes, (size_t)there);
    }
    if (crc != packbuf_i_load32(view->base + view->head_length + (at - data) / PACKBUF_I_CHUNK * 4))
      return packbuf_i_broken(error, PACKBUF_RULE_D1, at, PACKBUF_NOWHERE);
    checked++;
    at += size;
  }
  if (chunks) *chunks = checked;
  return PACKBUF_OK;
}
