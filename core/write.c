/* core/write.c: a plan into memory, each byte written once. Any stretch of the index or of the plain data can be
 * written alone; the whole is the longest stretch. Packed data are written behind the plain ones, one buffer after the
 * other, the index after them, since it says how long they have become, and the head last.
 * May use: arena, batch, plan, layout, pull, rows, seek, packing, output, checksums. Must not know: how the plan was
 * decided, how a block is packed. */

/* A stretch of a section: which bytes, and where the first comes from. */
typedef struct packbuf_i_stretch {
  uint64_t from, to;          /* of the section; data with checksums: from is a multiple of 64 KiB, to too or the end */
  uint32_t buffer;            /* the first buffer that ends after `from` */
  packbuf_i_mark mark;        /* where `from` is in it */
  const uint8_t *head, *tail; /* JSON and MessagePack cells that `from` and `to` cut, encoded; NULL: none */
} packbuf_i_stretch;

/* Hands what is in the window to its owner and makes room for more. */
struct packbuf_i_writer;
typedef packbuf_status (*packbuf_i_flush)(struct packbuf_i_writer *writer);

/* One call that writes. Writers of stretches only read the plan: many may share it. */
typedef struct packbuf_i_writer {
  const packbuf_i_plan *plan;
  packbuf_error *error;
  const packbuf_i_stretch *stretch;
  uint64_t section;      /* where it starts in the packed buffer */
  packbuf_i_flush flush; /* NULL: there is room for the whole stretch */
  packbuf_i_out out;
} packbuf_i_writer;

/* How much of the buffer is written. */
static uint64_t packbuf_i_done(const packbuf_i_writer *writer, const packbuf_i_planned *buffer) {
  return writer->section + writer->out.at - buffer->offset;
}

/* Makes room where there is none. At the end of the stretch there stays none. */
static packbuf_status packbuf_i_make_room(packbuf_i_writer *writer) {
  return writer->flush && writer->out.at == writer->out.limit && writer->out.at < writer->stretch->to
             ? writer->flush(writer)
             : PACKBUF_OK;
}

/* Of `size` bytes, those for which there is room. */
static uint64_t packbuf_i_fitting(const packbuf_i_writer *writer, uint64_t size) {
  return size < writer->out.limit - writer->out.at ? size : writer->out.limit - writer->out.at;
}

static packbuf_status packbuf_i_write_zeros(packbuf_i_writer *writer, uint64_t to) {
  while (writer->out.at < to) {
    packbuf_status status = packbuf_i_make_room(writer);
    if (status) return status;
    packbuf_i_out_zeros(&writer->out, packbuf_i_fitting(writer, to - writer->out.at));
  }
  return PACKBUF_OK;
}

/* A run of bools from host memory, checked piece by piece just before it is copied. */
static packbuf_status packbuf_i_write_bools(packbuf_i_writer *writer, const packbuf_i_planned *buffer,
                                            const packbuf_i_pull *pull, packbuf_i_run run) {
  while (run.size) {
    uint64_t piece = run.size < 32768 ? run.size : 32768;
    packbuf_status status =
        packbuf_i_check_bools(writer->error, buffer, run.bytes, piece, packbuf_i_done(writer, buffer));
    if (status) return status;
    packbuf_i_out_bytes(&writer->out, run.bytes, piece, piece < run.size ? run.bytes + piece : pull->ahead);
    run.bytes += piece;
    run.size -= piece;
  }
  return PACKBUF_OK;
}

/* The bytes of a run as they are stored, to `to`: from host memory or a device, reversed on big-endian machines; bools
 * checked. `done`: bytes of the buffer before it. */
static packbuf_status packbuf_i_copy_run_to(packbuf_error *error, const packbuf_i_planned *buffer,
                                            const packbuf_device *device, packbuf_i_run run, uint64_t done,
                                            uint8_t *to) {
  packbuf_status status = PACKBUF_OK;
  if (device) status = device->copy(device->context, to, run.bytes, (size_t)run.size);
  else memcpy(to, run.bytes, (size_t)run.size);
  if (status) return packbuf_i_hook_failed(error, buffer->node, status);
  if (packbuf_i_big_endian() && buffer->role == PACKBUF_ROLE_DATA)
    packbuf_i_swap(to, run.size, packbuf_i_swap_unit(buffer->dtype));
  return buffer->dtype.code == PACKBUF_DTYPE_BOOL ? packbuf_i_check_bools(error, buffer, to, run.size, done) : status;
}

/* One run, for which there is room, to its place. From a device, or reversed on big-endian machines, it is in its place
 * first and in the checksum after. */
static packbuf_status packbuf_i_write_run(packbuf_i_writer *writer, const packbuf_i_planned *buffer,
                                          const packbuf_i_pull *pull, packbuf_i_run run) {
  unsigned unit = buffer->role == PACKBUF_ROLE_DATA && packbuf_i_big_endian() ? packbuf_i_swap_unit(buffer->dtype) : 1;
  packbuf_status status;
  if (buffer->dtype.code == PACKBUF_DTYPE_BOOL && !pull->device)
    return packbuf_i_write_bools(writer, buffer, pull, run);
  if (!pull->device && unit <= 1) {
    packbuf_i_out_bytes(&writer->out, run.bytes, run.size, pull->ahead);
    return PACKBUF_OK;
  }
  status = packbuf_i_copy_run_to(writer->error, buffer, pull->device, run, packbuf_i_done(writer, buffer),
                                 packbuf_i_out_here(&writer->out));
  if (!status) packbuf_i_out_written(&writer->out, run.size);
  return status;
}

/* A run that may be longer than the room: the rest of it stays in *run at the end of the stretch. */
static packbuf_status packbuf_i_write_pieces(packbuf_i_writer *writer, const packbuf_i_planned *buffer,
                                             const packbuf_i_pull *pull, packbuf_i_run *run) {
  while (run->size) {
    packbuf_i_run piece = *run;
    packbuf_status status = packbuf_i_make_room(writer);
    piece.size = packbuf_i_fitting(writer, run->size);
    if (status || !piece.size) return status;
    status = packbuf_i_write_run(writer, buffer, pull, piece);
    if (status) return status;
    run->bytes += piece.size;
    run->size -= piece.size;
  }
  return PACKBUF_OK;
}

/* Bytes that are there: block headers and packed payloads. */
static packbuf_status packbuf_i_write_bytes(packbuf_i_writer *writer, const uint8_t *bytes, uint64_t size) {
  while (size) {
    packbuf_status status = packbuf_i_make_room(writer);
    const uint64_t piece = packbuf_i_fitting(writer, size);
    if (status || !piece) return status;
    packbuf_i_out_bytes(&writer->out, bytes, piece, NULL);
    bytes += piece;
    size -= piece;
  }
  return PACKBUF_OK;
}

/* The next rows, as long as they are one run each. */
static packbuf_status packbuf_i_write_rows(packbuf_i_writer *writer, const packbuf_i_planned *buffer,
                                           packbuf_i_pull *pull, uint64_t end) {
  packbuf_i_run runs[PACKBUF_I_ROWS_AT_ONCE];
  packbuf_status status = PACKBUF_OK;
  unsigned count = PACKBUF_I_ROWS_AT_ONCE;
  while (count == PACKBUF_I_ROWS_AT_ONCE && !status) {
    count = packbuf_i_pull_rows(pull, runs);
    for (unsigned i = 0; i < count && !status; i++) {
      pull->ahead = i + 1 < count ? runs[i + 1].bytes : NULL;
      if (runs[i].size > end - writer->out.at) return packbuf_i_changed(writer->error, buffer->node);
      if (runs[i].size <= writer->out.limit - writer->out.at)
        packbuf_i_out_bytes(&writer->out, runs[i].bytes, runs[i].size, pull->ahead);
      else status = packbuf_i_write_pieces(writer, buffer, pull, &runs[i]);
      if (writer->out.at == writer->stretch->to && writer->out.at < end) return status;
    }
  }
  pull->ahead = NULL;
  return status;
}

static packbuf_status packbuf_i_write_pulled(packbuf_i_writer *writer, const packbuf_i_planned *buffer,
                                             const packbuf_i_mark *mark) {
  packbuf_i_pull pull;
  uint64_t end = buffer->offset + buffer->length - writer->section, skip;
  int rows = buffer->role == PACKBUF_ROLE_DATA && buffer->dtype.code != PACKBUF_DTYPE_BOOL && !packbuf_i_big_endian() &&
             packbuf_i_has_rows(buffer->node);
  if (buffer->taken && buffer->role != PACKBUF_ROLE_DATA) { /* data that changed meanwhile are noticed */
    packbuf_i_pull_planned(&pull, buffer);
    skip = packbuf_i_done(writer, buffer);
  } else {
    skip = packbuf_i_pull_seek(&pull, buffer, mark);
  }
  for (;;) {
    packbuf_status status = rows && !skip ? packbuf_i_write_rows(writer, buffer, &pull, end) : PACKBUF_OK;
    packbuf_i_run run;
    if (status || (writer->out.at == writer->stretch->to && writer->out.at < end)) return status;
    run = packbuf_i_pull_next(&pull);
    if (run.size == 0) break;
    if (PACKBUF_I_UNLIKELY(skip)) {
      uint64_t less = skip < run.size ? skip : run.size;
      run.bytes += less;
      run.size -= less;
      skip -= less;
      if (!run.size) continue;
    }
    if (run.size > end - writer->out.at) return packbuf_i_changed(writer->error, buffer->node);
    if (run.size <= writer->out.limit - writer->out.at) status = packbuf_i_write_run(writer, buffer, &pull, run);
    else status = packbuf_i_write_pieces(writer, buffer, &pull, &run);
    if (status) return status;
  }
  if (pull.status) return packbuf_i_hook_failed(writer->error, buffer->node, pull.status);
  return writer->out.at == end ? PACKBUF_OK : packbuf_i_changed(writer->error, buffer->node);
}

/* Rows `row` to `end` encoded where they go. */
static packbuf_status packbuf_i_write_cells(packbuf_i_writer *writer, const packbuf_i_node *node, uint64_t row,
                                            uint64_t end, uint64_t size) {
  packbuf_i_sink sink;
  packbuf_status status;
  sink.at = packbuf_i_out_here(&writer->out);
  sink.capacity = size;
  sink.size = sink.limit = 0;
  status = packbuf_i_push_cells(node, &sink, row, end, writer->error);
  if (status)
    return packbuf_i_fail_at(writer->error, node, status, "the data changed while they were packed", PACKBUF_NOWHERE,
                             PACKBUF_NOWHERE);
  if (sink.size != size) return packbuf_i_changed(writer->error, node);
  packbuf_i_out_written(&writer->out, size);
  return PACKBUF_OK;
}

/* JSON and MessagePack cells that were not kept are encoded where they go; up to 64 cells at a time, so that the
 * checksum finds them in the cache. A cell that the stretch has only a part of was encoded before. */
static packbuf_status packbuf_i_write_pushed(packbuf_i_writer *writer, const packbuf_i_planned *buffer,
                                             const packbuf_i_mark *mark) {
  const packbuf_i_node *node = buffer->node;
  uint64_t row = mark->row;
  if (node->encoded) {
    const uint64_t done = packbuf_i_done(writer, buffer);
    return packbuf_i_write_bytes(writer, node->encoded + done, buffer->length - done);
  }
  if (mark->skip) {
    packbuf_i_out_bytes(&writer->out, writer->stretch->head + mark->skip,
                        packbuf_i_fitting(writer, node->sizes[row] - mark->skip), NULL);
    row++;
  }
  while (row < node->rows && writer->out.at < writer->stretch->to) {
    uint64_t end = row, size = 0, room = writer->out.limit - writer->out.at;
    packbuf_status status;
    while (end < node->rows && end - row < 64 && node->sizes[end] <= room - size) size += node->sizes[end++];
    if (end > row) {
      status = packbuf_i_write_cells(writer, node, row, end, size);
    } else if (writer->flush && writer->out.limit < writer->stretch->to) {
      status = writer->flush(writer); /* its window has room for every cell */
    } else {
      packbuf_i_out_bytes(&writer->out, writer->stretch->tail, room, NULL);
      return PACKBUF_OK;
    }
    if (status) return status;
    row = end;
  }
  return PACKBUF_OK;
}

/* What a buffer keeps in the index when it is packed: its headers and, of a role of the index, its payload. */
static packbuf_status packbuf_i_write_packed_index(packbuf_i_writer *writer, const packbuf_i_planned *buffer) {
  packbuf_status status = packbuf_i_write_zeros(writer, buffer->headers_offset - writer->section);
  if (!status) status = packbuf_i_write_bytes(writer, buffer->headers, buffer->blocks * 16);
  if (status || buffer->role == PACKBUF_ROLE_DATA) return status;
  status = packbuf_i_write_zeros(writer, buffer->offset - writer->section);
  return status ? status : packbuf_i_write_bytes(writer, buffer->payload, buffer->length);
}

/* The stretch of the plain data, or of the index behind the checksums. */
static packbuf_status packbuf_i_write_stretch(packbuf_i_writer *writer, int data) {
  static const packbuf_i_mark start = {0, 0, 0, 0, 0};
  const packbuf_i_stretch *stretch = writer->stretch;
  const packbuf_i_mark *mark = &stretch->mark;
  packbuf_status status;
  for (uint32_t i = stretch->buffer; i < writer->plan->buffer_count; i++, mark = &start) {
    const packbuf_i_planned *buffer = &writer->plan->buffers[i];
    if (buffer->storage != PACKBUF_STORED) continue;
    if (buffer->packing) {
      status = data ? PACKBUF_OK : packbuf_i_write_packed_index(writer, buffer);
      if (status) return status;
      continue;
    }
    if ((buffer->role == PACKBUF_ROLE_DATA) != data) continue;
    if (buffer->offset - writer->section >= stretch->to) break;
    status = packbuf_i_write_zeros(writer, buffer->offset - writer->section);
    if (!status)
      status =
          buffer->pushed ? packbuf_i_write_pushed(writer, buffer, mark) : packbuf_i_write_pulled(writer, buffer, mark);
    if (status) return status;
  }
  return packbuf_i_write_zeros(writer, stretch->to);
}

/* One packed buffer of the data, from where the writer stands, which the plan is told: block by block straight to its
 * place where there is room for any payload and it goes through the caches, else by way of a room in the first-level
 * cache. */
static packbuf_status packbuf_i_write_blocks(packbuf_i_writer *writer, packbuf_i_planned *buffer) {
  const packbuf_i_mark start = {0, 0, 0, 0, 0};
  packbuf_i_out *out = &writer->out;
  const uint64_t begin = out->at;
  uint64_t room[PACKBUF_I_PAYLOAD_ROOM / 8];
  packbuf_i_block_writer w;
  packbuf_status status = PACKBUF_OK;
  packbuf_i_blocks_begin(&w, buffer, &start, 0, writer->error);
  while (!status && w.next < buffer->blocks) {
    const int straight = !out->stream && out->limit - out->at >= PACKBUF_I_PAYLOAD_ROOM;
    uint32_t size = 0;
    status =
        packbuf_i_blocks_next(&w, (out->at - begin) / 64, straight ? packbuf_i_out_here(out) : (uint8_t *)room, &size);
    if (status) break;
    if (straight) packbuf_i_out_written(out, size);
    else if (size <= out->limit - out->at) packbuf_i_out_payload(out, (const uint8_t *)room, size);
    else if (writer->flush) status = packbuf_i_write_bytes(writer, (const uint8_t *)room, size);
    else status = packbuf_i_changed(writer->error, buffer->node);
  }
  buffer->offset = writer->section + begin;
  buffer->length = out->at - begin;
  return status;
}

/* The data section: what is plain, which is the writer's stretch, then what is packed. It is as long as this makes
 * it. */
static packbuf_status packbuf_i_write_data(packbuf_i_writer *writer, packbuf_i_plan *plan) {
  packbuf_i_stretch rest;
  packbuf_status status = packbuf_i_write_stretch(writer, 1);
  plan->turn++;
  memset(&rest, 0, sizeof rest);
  rest.from = plan->plain_length;
  rest.to = plan->data_bound;
  writer->stretch = &rest;
  if (!writer->flush) writer->out.limit = rest.to;
  for (uint32_t i = 0; !status && i < plan->buffer_count; i++) {
    packbuf_i_planned *buffer = &plan->buffers[i];
    if (!packbuf_i_packed_data(buffer)) continue;
    status = packbuf_i_write_blocks(writer, buffer);
    if (!status)
      status = packbuf_i_write_zeros(writer, packbuf_i_round_up(writer->out.at, plan->options->alignment_exponent));
  }
  if (!status && writer->flush) status = writer->flush(writer);
  writer->stretch = NULL;
  if (status) return status;
  packbuf_i_out_end(&writer->out);
  packbuf_i_set_data_length(plan, writer->out.at);
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

static void packbuf_i_put_buffer(uint8_t *record, const packbuf_i_planned *buffer, const packbuf_i_planned *stored) {
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
    record[7] = stored->packing;
    packbuf_i_store64(record + 24, stored->offset);
    packbuf_i_store64(record + 32, stored->length);
    packbuf_i_store64(record + 56, stored->headers_offset);
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

/* What the checksums leave of the place that was kept for them. */
static uint32_t packbuf_i_checksum_room(const packbuf_i_plan *plan) {
  const unsigned exponent = plan->options->alignment_exponent;
  const uint64_t used = plan->checksums ? 4 * packbuf_i_chunks(plan->data_length) : 0;
  return (uint32_t)((packbuf_i_round_up(4 * plan->checksums, exponent) - packbuf_i_round_up(used, exponent)) >>
                    exponent);
}

static void packbuf_i_put_header(uint8_t *head, const packbuf_i_plan *plan) {
  memcpy(head, packbuf_i_magic, 8);
  packbuf_i_store16(head + 8, PACKBUF_FORMAT_MAJOR);
  packbuf_i_store16(head + 10, PACKBUF_FORMAT_MINOR);
  head[12] = plan->kind;
  head[13] = plan->options->alignment_exponent;
  packbuf_i_store16(head + 14, (uint16_t)packbuf_i_profile_number(plan->options->packing));
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
  packbuf_i_store32(head + 120, packbuf_i_checksum_room(plan));
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
  for (uint32_t i = 0; i < plan->buffer_count; i++, record += 64) {
    const packbuf_i_planned *planned = &plan->buffers[i];
    packbuf_i_put_buffer(record, planned,
                         planned->storage == PACKBUF_ALIAS ? &plan->buffers[planned->alias_of] : planned);
  }
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

/* ---- into memory ---- */

PACKBUF_API packbuf_status packbuf_measure(packbuf_batch *batch, uint64_t *size, packbuf_error *error) {
  packbuf_status status;
  if (!batch || !size)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "batch and size must be given", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  status = packbuf_i_make_plan(batch, error);
  if (!status) *size = batch->plan->bound;
  return status;
}

static uint64_t packbuf_i_data_at(const packbuf_i_plan *plan) { return plan->head_length + plan->index_length; }

/* A stretch of the data section and one of the index to their places in a packed buffer at `dst`. */
static packbuf_status packbuf_i_write_stretches(const packbuf_i_plan *plan, const packbuf_i_stretch *data,
                                                const packbuf_i_stretch *index, uint8_t *dst, packbuf_error *error) {
  packbuf_i_writer writer;
  packbuf_status status = PACKBUF_OK;
  writer.plan = plan;
  writer.error = error;
  writer.flush = NULL;
  if (data->from < data->to) {
    writer.stretch = data;
    writer.section = packbuf_i_data_at(plan);
    packbuf_i_out_begin(&writer.out, dst + writer.section + data->from, data->from, data->to,
                        plan->checksums ? dst + plan->head_length : NULL, plan->data_bound >= PACKBUF_I_STREAM_FROM);
    status = packbuf_i_write_stretch(&writer, 1);
    if (!status) packbuf_i_out_end(&writer.out);
  }
  if (!status && index->from < index->to) {
    writer.stretch = index;
    writer.section = plan->head_length;
    packbuf_i_out_begin(&writer.out, dst + writer.section + index->from, index->from, index->to, NULL, 0);
    status = packbuf_i_write_stretch(&writer, 0);
  }
  return status;
}

/* The index behind the checksums, once the data are there. */
static packbuf_status packbuf_i_write_index(const packbuf_i_plan *plan, uint8_t *dst, packbuf_error *error) {
  packbuf_i_stretch data, index;
  memset(&data, 0, sizeof data);
  memset(&index, 0, sizeof index);
  index.from = plan->checksums ? 4 * packbuf_i_chunks(plan->data_length) : 0;
  index.to = plan->index_length;
  return packbuf_i_write_stretches(plan, &data, &index, dst, error);
}

/* The whole data section of a batch of which data are packed, then the index, to a packed buffer at `dst`. */
static packbuf_status packbuf_i_write_packed(packbuf_i_plan *plan, uint8_t *dst, packbuf_error *error) {
  packbuf_i_stretch data;
  packbuf_i_writer writer;
  packbuf_status status;
  memset(&data, 0, sizeof data);
  data.to = plan->plain_length;
  writer.plan = plan;
  writer.error = error;
  writer.flush = NULL;
  writer.stretch = &data;
  writer.section = packbuf_i_data_at(plan);
  packbuf_i_out_begin(&writer.out, dst + writer.section, 0, data.to, plan->checksums ? dst + plan->head_length : NULL,
                      plan->data_bound >= PACKBUF_I_STREAM_FROM);
  status = packbuf_i_write_data(&writer, plan);
  return status ? status : packbuf_i_write_index(plan, dst, error);
}

/* The head, which holds its own checksum and that of the index. */
static void packbuf_i_close_head(uint8_t *head, const packbuf_i_plan *plan, uint32_t index_checksum) {
  packbuf_i_put_head(head, plan);
  packbuf_i_store32(head + 56, index_checksum);
  packbuf_i_store32(head + 60, packbuf_checksum(0, head, (size_t)plan->head_length));
}

static void packbuf_i_finish_head(const packbuf_i_plan *plan, uint8_t *dst) {
  packbuf_i_close_head(dst, plan, packbuf_checksum(0, dst + plan->head_length, (size_t)plan->index_length));
}

/* Whether a packed buffer of the measured batch can go to `dst`. */
static packbuf_status packbuf_i_check_dst(const packbuf_i_plan *plan, const void *dst, uint64_t capacity,
                                          packbuf_error *error) {
  if (capacity < plan->bound || plan->bound > SIZE_MAX)
    return packbuf_i_too_small(error, "the destination is smaller than the packed buffer", capacity, plan->bound);
  if (!dst)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "there is no destination", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_write(packbuf_batch *batch, void *dst, uint64_t capacity, uint64_t *size,
                                         packbuf_error *error) {
  packbuf_i_stretch data, index;
  uint64_t needed;
  packbuf_status status = packbuf_measure(batch, &needed, error);
  if (status) return status;
  if (size) *size = needed;
  status = packbuf_i_check_dst(batch->plan, dst, capacity, error);
  if (status) return status;
  if (batch->plan->packed) {
    status = packbuf_i_write_packed(batch->plan, (uint8_t *)dst, error);
  } else {
    memset(&data, 0, sizeof data);
    memset(&index, 0, sizeof index);
    data.to = batch->plan->data_length;
    index.from = 4 * batch->plan->checksums;
    index.to = batch->plan->index_length;
    status = packbuf_i_write_stretches(batch->plan, &data, &index, (uint8_t *)dst, error);
  }
  if (!status) packbuf_i_finish_head(batch->plan, (uint8_t *)dst);
  if (size && !status) *size = batch->plan->total_length;
  return status;
}

PACKBUF_API packbuf_status packbuf_pack(packbuf_batch *batch, void **data, uint64_t *size, packbuf_error *error) {
  uint64_t needed;
  size_t alignment;
  packbuf_status status = data && size ? packbuf_measure(batch, &needed, error)
                                       : packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "data and size must be given",
                                                        PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (status) return status;
  alignment = (size_t)1 << batch->options.alignment_exponent;
  *data = needed > SIZE_MAX ? NULL : packbuf_arena_alloc(batch->arena, (size_t)needed, alignment);
  if (!*data) return packbuf_i_no_memory(error);
  status = packbuf_write(batch, *data, needed, size, error);
  if (!status && *size < needed)
    *data = packbuf_i_arena_trim(batch->arena, *data, (size_t)needed, (size_t)*size, alignment);
  return status;
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
