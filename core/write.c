/* core/write.c: a plan into memory: head, index, data, each byte written once.
 * May use: batch, plan, layout, pull, output. Must not know: how the plan was decided. */

static packbuf_status packbuf_i_changed(packbuf_i_plan *plan, const packbuf_i_node *node) {
  return packbuf_i_plan_fail(plan, node, PACKBUF_INVALID_ARGUMENT, "the data changed while they were packed",
                             PACKBUF_NOWHERE);
}

/* How much of the buffer is written. */
static uint64_t packbuf_i_out_offset(const packbuf_i_out *out, const packbuf_i_planned *buffer) {
  return out->section + out->at - buffer->offset;
}

/* A run of bools from host memory, checked piece by piece just before it is copied. */
static packbuf_status packbuf_i_out_bools(packbuf_i_plan *plan, packbuf_i_out *out, const packbuf_i_planned *buffer,
                                          const packbuf_i_pull *pull, packbuf_i_run run) {
  while (run.size) {
    uint64_t piece = run.size < 32768 ? run.size : 32768;
    packbuf_status status = packbuf_i_check_bools(plan, buffer, run.bytes, piece, packbuf_i_out_offset(out, buffer));
    if (status) return status;
    packbuf_i_out_bytes(out, run.bytes, piece, piece < run.size ? run.bytes + piece : pull->ahead);
    run.bytes += piece;
    run.size -= piece;
  }
  return PACKBUF_OK;
}

/* One run to its place. From a device, or reversed on big-endian machines, it is in its place first and in the checksum
 * after. */
static packbuf_status packbuf_i_out_run(packbuf_i_plan *plan, packbuf_i_out *out, const packbuf_i_planned *buffer,
                                        const packbuf_i_pull *pull, packbuf_i_run run) {
  unsigned unit = buffer->role == PACKBUF_ROLE_DATA && packbuf_i_big_endian() ? packbuf_i_swap_unit(buffer->dtype) : 1;
  packbuf_status status = PACKBUF_OK;
  uint8_t *to = packbuf_i_out_here(out);
  if (buffer->dtype.code == PACKBUF_DTYPE_BOOL && !pull->device)
    return packbuf_i_out_bools(plan, out, buffer, pull, run);
  if (!pull->device && unit <= 1) {
    packbuf_i_out_bytes(out, run.bytes, run.size, pull->ahead);
    return PACKBUF_OK;
  }
  if (!pull->device) memcpy(to, run.bytes, (size_t)run.size);
  else status = pull->device->copy(pull->device->context, to, run.bytes, (size_t)run.size);
  if (status) return packbuf_i_plan_fail(plan, buffer->node, status, "the device's copy hook failed", PACKBUF_NOWHERE);
  packbuf_i_swap(to, run.size, unit);
  if (buffer->dtype.code == PACKBUF_DTYPE_BOOL)
    status = packbuf_i_check_bools(plan, buffer, to, run.size, packbuf_i_out_offset(out, buffer));
  packbuf_i_out_written(out, run.size);
  return status;
}

static packbuf_status packbuf_i_out_pulled(packbuf_i_plan *plan, packbuf_i_out *out, const packbuf_i_planned *buffer) {
  packbuf_i_pull pull;
  uint64_t end = buffer->offset + buffer->length - out->section;
  packbuf_i_pull_start(&pull, buffer->node, buffer->role, buffer->dim);
  for (;;) {
    packbuf_status status;
    packbuf_i_run run = packbuf_i_pull_next(&pull);
    if (run.size == 0) break;
    if (run.size > end - out->at) return packbuf_i_changed(plan, buffer->node);
    status = packbuf_i_out_run(plan, out, buffer, &pull, run);
    if (status) return status;
  }
  if (pull.status)
    return packbuf_i_plan_fail(plan, buffer->node, pull.status, "the device's copy hook failed", PACKBUF_NOWHERE);
  return out->at == end ? PACKBUF_OK : packbuf_i_changed(plan, buffer->node);
}

/* JSON and MessagePack cells are encoded where they go; 64 cells at a time, so that the checksum finds them in the
 * cache. */
static packbuf_status packbuf_i_out_pushed(packbuf_i_plan *plan, packbuf_i_out *out, const packbuf_i_planned *buffer) {
  const packbuf_i_node *node = buffer->node;
  for (uint64_t row = 0; row < node->rows; row += 64) {
    uint64_t end = node->rows - row < 64 ? node->rows : row + 64, size = 0;
    packbuf_i_sink sink;
    packbuf_status status;
    for (uint64_t i = row; i < end; i++) size += node->sizes[i];
    sink.at = packbuf_i_out_here(out);
    sink.capacity = size;
    sink.size = 0;
    status = packbuf_i_push_cells(node, &sink, row, end, plan->error);
    if (status)
      return packbuf_i_plan_fail(plan, node, status, "the data changed while they were packed", PACKBUF_NOWHERE);
    if (sink.size != size) return packbuf_i_changed(plan, node);
    packbuf_i_out_written(out, size);
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_out_section(packbuf_i_plan *plan, packbuf_i_out *out, int data, uint64_t end) {
  for (uint32_t i = 0; i < plan->buffer_count; i++) {
    const packbuf_i_planned *buffer = &plan->buffers[i];
    packbuf_status status;
    if (buffer->storage != PACKBUF_STORED || (buffer->role == PACKBUF_ROLE_DATA) != data) continue;
    packbuf_i_out_zeros(out, buffer->offset - out->section - out->at);
    status = buffer->pushed ? packbuf_i_out_pushed(plan, out, buffer) : packbuf_i_out_pulled(plan, out, buffer);
    if (status) return status;
  }
  packbuf_i_out_zeros(out, end - out->section - out->at);
  packbuf_i_out_end(out);
  return PACKBUF_OK;
}

/* ---- the head ---- */

static void packbuf_i_put_node(uint8_t *record, const packbuf_i_node *node, uint64_t *strings, uint32_t first_buffer,
                               uint32_t buffer_count) {
  uint32_t descendants = 0;
  const packbuf_i_node *last = node;
  while (last->last_child) last = last->last_child;
  descendants = last->index - node->index;
  packbuf_i_store32(record, node->parent ? node->parent->index : UINT32_MAX);
  packbuf_i_store32(record + 4, descendants);
  packbuf_i_store32(record + 8, (uint32_t)*strings);
  packbuf_i_store32(record + 12, (uint32_t)node->name_size);
  *strings += node->name_size;
  packbuf_i_store32(record + 16, first_buffer);
  packbuf_i_store16(record + 20, (uint16_t)buffer_count);
  record[22] = node->kind;
  record[23] = node->scope;
  if (node->kind == PACKBUF_LEAF) {
    record[24] = node->codec;
    record[25] = node->dtype.code;
    record[26] = node->dtype.bits;
    record[27] = node->form;
    packbuf_i_store16(record + 28, node->dtype.lanes);
    record[30] = node->rank;
    record[31] = node->logical_type;
  }
  packbuf_i_store32(record + 32, (uint32_t)*strings);
  if (node->codec == PACKBUF_CODEC_NDARRAY) *strings += 8u * node->rank;
  packbuf_i_store32(record + 36, (uint32_t)*strings);
  packbuf_i_store32(record + 40, (uint32_t)node->parameter_size);
  *strings += node->parameter_size;
  packbuf_i_store64(record + 48, node->rows);
}

static void packbuf_i_put_buffer(uint8_t *record, const packbuf_i_planned *buffer) {
  packbuf_i_store32(record, buffer->node->index);
  record[4] = buffer->role;
  record[5] = buffer->dim;
  record[6] = buffer->storage;
  record[8] = buffer->dtype.code;
  record[9] = buffer->dtype.bits;
  packbuf_i_store16(record + 10, buffer->dtype.lanes);
  packbuf_i_store32(record + 12, buffer->alias_of);
  packbuf_i_store64(record + 16, buffer->count);
  if (buffer->storage == PACKBUF_STORED || buffer->storage == PACKBUF_ALIAS) {
    packbuf_i_store64(record + 24, buffer->offset);
    packbuf_i_store64(record + 32, buffer->length);
  } else {
    memcpy(record + 40, buffer->value, 16);
  }
}

static uint8_t *packbuf_i_put_text(uint8_t *to, const void *text, size_t size) {
  if (size) memcpy(to, text, size);
  return to + size;
}

static void packbuf_i_put_strings(uint8_t *to, const packbuf_i_plan *plan) {
  for (uint32_t i = 0; i < plan->node_count; i++) {
    const packbuf_i_node *node = plan->nodes[i];
    to = packbuf_i_put_text(to, node->name, node->name_size);
    for (unsigned d = 0; node->codec == PACKBUF_CODEC_NDARRAY && d < node->rank; d++, to += 8)
      packbuf_i_store64(to, node->shape[d]);
    to = packbuf_i_put_text(to, node->parameter, node->parameter_size);
  }
  for (uint32_t i = 0; i < plan->pair_count; i++) {
    to = packbuf_i_put_text(to, plan->pairs[i]->key, plan->pairs[i]->key_size);
    to = packbuf_i_put_text(to, plan->pairs[i]->text, plan->pairs[i]->text_size);
  }
}

static void packbuf_i_put_header(uint8_t *head, const packbuf_i_plan *plan) {
  memcpy(head, packbuf_i_magic, 8);
  packbuf_i_store16(head + 8, PACKBUF_FORMAT_MAJOR);
  packbuf_i_store16(head + 10, PACKBUF_FORMAT_MINOR);
  head[12] = 1;
  head[13] = plan->options->alignment_exponent;
  packbuf_i_store16(head + 14, plan->options->profile);
  packbuf_i_store32(head + 20, plan->options->data_checksums);
  packbuf_i_store64(head + 24, plan->total_length);
  packbuf_i_store64(head + 32, plan->head_length);
  packbuf_i_store64(head + 40, plan->index_length);
  packbuf_i_store64(head + 48, plan->rows);
  packbuf_i_store32(head + 64, plan->node_count);
  packbuf_i_store32(head + 68, plan->buffer_count);
  packbuf_i_store32(head + 72, plan->pair_count);
  packbuf_i_store32(head + 76, plan->name_count);
  packbuf_i_store16(head + 80, 64);
  packbuf_i_store16(head + 82, 64);
  packbuf_i_store16(head + 84, 32);
  packbuf_i_store16(head + 86, 4);
  packbuf_i_store64(head + 88, plan->strings_length);
  packbuf_i_store32(head + 96, plan->field_count);
  packbuf_i_store32(head + 100, plan->value_count);
  memcpy(head + 104, plan->options->row_order_token, 16);
}

static void packbuf_i_put_head(uint8_t *head, const packbuf_i_plan *plan) {
  uint8_t *record = head + 128;
  uint64_t strings = 0;
  uint32_t buffer = 0;
  memset(head, 0, (size_t)plan->head_length);
  packbuf_i_put_header(head, plan);
  for (uint32_t i = 0; i < plan->node_count; i++, record += 64) {
    uint32_t first = buffer;
    while (buffer < plan->buffer_count && plan->buffers[buffer].node->index == i) buffer++;
    packbuf_i_put_node(record, plan->nodes[i], &strings, first, buffer - first);
  }
  for (uint32_t i = 0; i < plan->buffer_count; i++, record += 64) packbuf_i_put_buffer(record, &plan->buffers[i]);
  for (uint32_t i = 0; i < plan->pair_count; i++, record += 32) {
    size_t key = plan->pairs[i]->key_size, text = plan->pairs[i]->text_size;
    packbuf_i_store32(record, plan->pair_nodes[i]);
    packbuf_i_store32(record + 4, (uint32_t)strings);
    packbuf_i_store32(record + 8, (uint32_t)key);
    packbuf_i_store32(record + 12, (uint32_t)(strings + key));
    packbuf_i_store32(record + 16, (uint32_t)text);
    strings += key + text;
  }
  for (uint32_t i = 0; i < plan->name_count; i++, record += 4) packbuf_i_store32(record, plan->names[i]);
  packbuf_i_put_strings(record, plan);
}

PACKBUF_API packbuf_status packbuf_measure(packbuf_batch *batch, uint64_t *size, packbuf_error *error) {
  packbuf_status status;
  if (!batch || !size)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "batch and size must be given", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  status = packbuf_i_make_plan(batch, error);
  if (!status) *size = batch->plan->total_length;
  return status;
}

PACKBUF_API packbuf_status packbuf_write(packbuf_batch *batch, void *dst, uint64_t capacity, uint64_t *size,
                                         packbuf_error *error) {
  packbuf_i_plan *plan;
  packbuf_i_out out;
  packbuf_error local;
  uint64_t needed, data_at;
  packbuf_status status = packbuf_measure(batch, &needed, error);
  if (status) return status;
  if (size) *size = needed;
  if (capacity < needed || needed > SIZE_MAX)
    return packbuf_i_fail(error, PACKBUF_CAPACITY, "the destination is smaller than the packed buffer", capacity,
                          PACKBUF_NOWHERE);
  if (!dst)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "there is no destination", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  plan = batch->plan;
  plan->error = error ? error : &local;
  data_at = plan->head_length + plan->index_length;
  packbuf_i_out_begin(&out, dst, data_at, plan->checksums ? plan->head_length : 0,
                      plan->data_length >= PACKBUF_I_STREAM_FROM);
  status = packbuf_i_out_section(
      plan, &out, 1, plan->total_length); /* data first: their checksums are in the index, its checksum in the head */
  if (status) return status;
  packbuf_i_out_begin(&out, dst, plan->head_length + plan->checksums * 4, 0, 0);
  status = packbuf_i_out_section(plan, &out, 0, data_at);
  if (status) return status;
  packbuf_i_put_head(out.base, plan);
  packbuf_i_store32(out.base + 56, out.kernel->crc(0, out.base + plan->head_length, (size_t)plan->index_length));
  packbuf_i_store32(out.base + 60, out.kernel->crc(0, out.base, (size_t)plan->head_length));
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_pack(packbuf_batch *batch, void **data, uint64_t *size, packbuf_error *error) {
  uint64_t needed;
  packbuf_status status = data && size ? packbuf_measure(batch, &needed, error)
                                       : packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "data and size must be given",
                                                        PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (status) return status;
  *data = needed > SIZE_MAX
              ? NULL
              : packbuf_arena_alloc(batch->arena, (size_t)needed, (size_t)1 << batch->options.alignment_exponent);
  if (!*data) return packbuf_i_no_memory(error);
  return packbuf_write(batch, *data, needed, size, error);
}

PACKBUF_API uint64_t packbuf_bound(uint64_t fields, uint64_t rank_sum, uint64_t rows, uint64_t text_bytes,
                                   uint64_t data_bytes) {
  uint64_t columns; /* of 8 bytes a row; each of the sum's terms stays below 2^62 */
  if (fields > (1u << 22) || rank_sum > (1u << 25) || rows >> 60 || text_bytes >> 40 || data_bytes >> 61)
    return UINT64_MAX;
  columns = fields * 2 + rank_sum;
  if (columns && rows >= ((uint64_t)1 << 59) / columns) return UINT64_MAX;
  return PACKBUF_BOUND(fields, rank_sum, rows, text_bytes, data_bytes);
}
