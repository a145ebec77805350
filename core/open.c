/* core/open.c: opening a packed buffer: the file header and directory (rules H) and, when asked, the tables
 * (core/tables.c). Costs little more than the checksum of the head, allocates nothing, and touches nothing but the
 * head.
 * May use: base, crc32c, access, tables. Must not know: codecs, values, the bytes of index and data. */

PACKBUF_API packbuf_limits packbuf_default_limits(void) {
  packbuf_limits limits;
  limits.head_bytes = UINT64_C(1) << 30;
  limits.rows = UINT64_C(1) << 48;
  limits.decoded_bytes = UINT64_C(1) << 40;
  limits.cell_bytes = UINT64_C(1) << 30;
  limits.nodes = 1u << 20;
  limits.buffers = 1u << 22;
  limits.metadata = 1u << 16;
  limits.depth = 64;
  limits.cell_depth = 512;
  return limits;
}

/* Rules H2 to H7 on the first 64 bytes, which go into the view. */
static packbuf_rule packbuf_i_read_header(packbuf_view *view, const uint8_t *header, uint64_t *at) {
  uint64_t mask;
  if (memcmp(header, packbuf_i_magic, 8) != 0) return *at = 0, PACKBUF_RULE_H2;
  if (packbuf_i_load16(header + 8) != PACKBUF_FORMAT_MAJOR) return *at = 8, PACKBUF_RULE_H3;
  if (packbuf_i_load32(header + 16) != 0) return *at = 16, PACKBUF_RULE_H4;
  if (header[12] < 1 || header[12] > 2) return *at = 12, PACKBUF_RULE_H5;
  if (header[13] < 6 || header[13] > 12) return *at = 13, PACKBUF_RULE_H6;
  view->version_minor = packbuf_i_load16(header + 10);
  view->kind = header[12];
  view->alignment_exponent = header[13];
  view->profile = packbuf_i_load16(header + 14);
  view->optional_features = packbuf_i_load32(header + 20);
  view->total_length = packbuf_i_load64(header + 24);
  view->head_length = packbuf_i_load64(header + 32);
  view->index_length = packbuf_i_load64(header + 40);
  view->rows = packbuf_i_load64(header + 48);
  view->index_checksum = packbuf_i_load32(header + 56);
  view->head_checksum = packbuf_i_load32(header + 60);
  mask = (UINT64_C(1) << view->alignment_exponent) - 1;
  if (view->head_length < 128 || (view->head_length & mask) || view->head_length > view->total_length)
    return *at = 32, PACKBUF_RULE_H7;
  if ((view->index_length & mask) || view->index_length > view->total_length - view->head_length)
    return *at = 40, PACKBUF_RULE_H7;
  if (view->total_length & mask) return *at = 24, PACKBUF_RULE_H7;
  return PACKBUF_RULE_NONE;
}

PACKBUF_API packbuf_status packbuf_peek(const void *data, uint64_t size, uint64_t *head_and_index, uint64_t *total,
                                        packbuf_error *error) {
  uint8_t header[64];
  packbuf_view view;
  packbuf_rule rule;
  uint64_t at = 0;
  if (data == NULL && size != 0)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "data is NULL", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (size < sizeof header) return packbuf_i_truncated(error, PACKBUF_RULE_H1, size, sizeof header);
  memcpy(header, data, sizeof header);
  PACKBUF_I_FETCHED_STRUCT(header);
  rule = packbuf_i_read_header(&view, header, &at);
  if (rule != PACKBUF_RULE_NONE) return packbuf_i_broken(error, rule, at, PACKBUF_NOWHERE);
  if (head_and_index) *head_and_index = view.head_length + view.index_length;
  if (total) *total = view.total_length;
  return PACKBUF_OK;
}

/* The directory and where the tables lie. */
static void packbuf_i_read_directory(packbuf_view *view, const uint8_t *directory) {
  view->node_count = packbuf_i_load32(directory);
  view->buffer_count = packbuf_i_load32(directory + 4);
  view->metadata_count = packbuf_i_load32(directory + 8);
  view->name_count = packbuf_i_load32(directory + 12);
  view->node_stride = packbuf_i_load16(directory + 16);
  view->buffer_stride = packbuf_i_load16(directory + 18);
  view->metadata_stride = packbuf_i_load16(directory + 20);
  view->name_stride = packbuf_i_load16(directory + 22);
  view->strings_length = packbuf_i_load64(directory + 24);
  view->field_count = packbuf_i_load32(directory + 32);
  view->value_count = packbuf_i_load32(directory + 36);
  memcpy(view->row_order_token, directory + 40, 16);
  view->checksum_room = packbuf_i_load32(directory + 56);
  view->nodes_at =
      128; /* a count times a stride stays below 2^48: no sum here overflows, once strings_length is below 2^32 */
  view->buffers_at = view->nodes_at + (uint64_t)view->node_count * view->node_stride;
  view->metadata_at = view->buffers_at + (uint64_t)view->buffer_count * view->buffer_stride;
  view->names_at = view->metadata_at + (uint64_t)view->metadata_count * view->metadata_stride;
  view->strings_at = view->names_at + (uint64_t)view->name_count * view->name_stride;
}

/* Rule H10. */
static packbuf_rule packbuf_i_check_limits(const packbuf_view *view, uint64_t *at) {
  const packbuf_limits *limits = &view->limits;
  if (view->head_length > limits->head_bytes) return *at = 32, PACKBUF_RULE_H10;
  if (view->node_count > limits->nodes) return *at = 64, PACKBUF_RULE_H10;
  if (view->buffer_count > limits->buffers) return *at = 68, PACKBUF_RULE_H10;
  if (view->metadata_count > limits->metadata) return *at = 72, PACKBUF_RULE_H10;
  if (view->rows > limits->rows) return *at = 48, PACKBUF_RULE_H10;
  if (view->strings_length > UINT32_MAX) return *at = 88, PACKBUF_RULE_H10;
  return PACKBUF_RULE_NONE;
}

/* Rules H11 to H15: the rest of the directory, once the limits hold. `header`: the copy of the first 128 bytes that the
 * view was filled from. */
static packbuf_rule packbuf_i_check_directory(const packbuf_view *view, const uint8_t *header, uint64_t *at) {
  static const uint8_t zero[4] = {0, 0, 0, 0};
  const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
  const uint64_t mask = (UINT64_C(1) << view->alignment_exponent) - 1, end = view->strings_at + view->strings_length;
  uint32_t crc = kernel->crc(0, header, 60);
  crc = kernel->crc(crc, zero, 4);
  crc = kernel->crc(crc, header + 64, 64);
  crc = kernel->crc(crc, view->base + 128, (size_t)view->head_length - 128);
  if (crc != view->head_checksum) return *at = 60, PACKBUF_RULE_H11;
  if (view->node_stride < 64 || view->node_stride % 8) return *at = 80, PACKBUF_RULE_H12;
  if (view->buffer_stride < 64 || view->buffer_stride % 8) return *at = 82, PACKBUF_RULE_H12;
  if (view->metadata_stride < 32 || view->metadata_stride % 8) return *at = 84, PACKBUF_RULE_H12;
  if (view->name_stride < 4 || view->name_stride % 4) return *at = 86, PACKBUF_RULE_H12;
  if (packbuf_i_load32(header + 124) != 0) return *at = 124, PACKBUF_RULE_H13;
  if (view->head_length != ((end + mask) & ~mask)) return *at = 32, PACKBUF_RULE_H14;
  for (uint64_t i = end; i < view->head_length; i++) {
    if (view->base[i] != 0) return *at = i, PACKBUF_RULE_H15;
  }
  return PACKBUF_RULE_NONE;
}

/* packbuf_open, and packbuf_open_partial when `partial`. */
static packbuf_status packbuf_i_open(packbuf_view *view, const void *data, uint64_t size, int partial,
                                     const packbuf_fetched *fetched, uint64_t count, unsigned flags,
                                     const packbuf_limits *limits, packbuf_error *error) {
  uint8_t header[128];
  packbuf_view opened;
  packbuf_rule rule;
  packbuf_status status = PACKBUF_OK;
  uint64_t at = 0, needed;
  if (view == NULL || (data == NULL && size != 0) || (fetched == NULL && count != 0) ||
      (flags & ~(unsigned)((partial ? 0 : PACKBUF_OPEN_EXACT) | PACKBUF_OPEN_TABLES)) != 0)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "view or data is NULL, or a flag is unknown",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  memset(view, 0, sizeof *view); /* a view that failed to open holds no nodes */
  if (size > SIZE_MAX)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "size is larger than the address space", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (size < sizeof header) return packbuf_i_truncated(error, PACKBUF_RULE_H1, size, sizeof header);
  memset(&opened, 0, sizeof opened);
  opened.base = (const uint8_t *)data;
  opened.capacity = size;
  opened.fetched = fetched;
  opened.fetched_count = count;
  opened.limits = limits ? *limits : packbuf_default_limits();
  memcpy(header, data, sizeof header);
  PACKBUF_I_FETCHED_STRUCT(header);
  rule = packbuf_i_read_header(&opened, header, &at);
  if (rule == PACKBUF_RULE_NONE && partial && !packbuf_i_fetched_in_order(fetched, count, opened.total_length))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT,
                          "the fetched ranges do not ascend, overlap, pass the end, or have no bytes", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  needed = partial ? opened.head_length + opened.index_length : opened.total_length;
  if (rule == PACKBUF_RULE_NONE && size < needed) return packbuf_i_truncated(error, PACKBUF_RULE_H8, size, needed);
  if (rule == PACKBUF_RULE_NONE && (flags & PACKBUF_OPEN_EXACT) && size > opened.total_length)
    at = opened.total_length, rule = PACKBUF_RULE_H9;
  if (rule == PACKBUF_RULE_NONE) {
    packbuf_i_read_directory(&opened, header + 64);
    rule = packbuf_i_check_limits(&opened, &at);
  }
  if (rule == PACKBUF_RULE_NONE) rule = packbuf_i_check_directory(&opened, header, &at);
  if (rule != PACKBUF_RULE_NONE) return packbuf_i_broken(error, rule, at, PACKBUF_NOWHERE);
  if (flags & PACKBUF_OPEN_TABLES) status = packbuf_i_check_tables(&opened, error);
  if (status == PACKBUF_OK) *view = opened;
  return status;
}

PACKBUF_API packbuf_status packbuf_open(packbuf_view *view, const void *data, uint64_t size, unsigned flags,
                                        const packbuf_limits *limits, packbuf_error *error) {
  return packbuf_i_open(view, data, size, 0, NULL, 0, flags, limits, error);
}

PACKBUF_API packbuf_status packbuf_open_partial(packbuf_view *view, const void *head_and_index, uint64_t size,
                                                const packbuf_fetched *fetched, uint64_t count, unsigned flags,
                                                const packbuf_limits *limits, packbuf_error *error) {
  return packbuf_i_open(view, head_and_index, size, 1, fetched, count, flags, limits, error);
}
