/* core/parts.c: a plan divided into parts that threads write side by side. A part is a stretch of the index and one of
 * the data, whose borders lie at multiples of 64 KiB, so that each checksum belongs to one part, and some stripes of
 * what is packed. Stripes are packed where they would lie plain; packbuf_write_finish closes them up, and writes the
 * index where it depends on them. The bytes are those of packbuf_write.
 * May use: arena, batch, layout, seek, packing, write. Must not know: threads. */

/* 64 blocks of a packed data buffer. */
typedef struct packbuf_i_stripe {
  uint32_t buffer;
  uint64_t first; /* block */
  packbuf_i_mark mark;
  uint64_t size; /* of its payloads, once it is packed */
  uint64_t turn; /* the plan's, when it was packed; else UINT64_MAX */
} packbuf_i_stripe;

typedef struct packbuf_i_part {
  packbuf_i_stretch index, data;
  uint64_t stripe, stripe_end;
} packbuf_i_part;

typedef struct packbuf_i_split {
  uint32_t wanted, count;
  packbuf_i_part *parts;
  packbuf_i_stripe *stripes;
  uint64_t stripe_count;
} packbuf_i_split;

/* Where the border before part `part` of `count` lies, by bytes of index and data together. */
static void packbuf_i_border(const packbuf_i_plan *plan, uint64_t part, uint64_t count, uint64_t *index,
                             uint64_t *data) {
  uint64_t first = 4 * plan->checksums, inside = plan->index_length - first, work = inside + plan->data_length;
  uint64_t at = work / count * part + work % count * part / count;
  if (at < inside) {
    *index = packbuf_i_round_up(first + at, 6);
    if (part == 0) *index = first;
    *data = 0;
    return;
  }
  *index = plan->index_length;
  *data = part == count ? plan->data_length : (at - inside + PACKBUF_I_CHUNK - 1) / PACKBUF_I_CHUNK * PACKBUF_I_CHUNK;
  if (*data > plan->data_length) *data = plan->data_length;
}

/* The cell of a row, encoded into the arena, for the stretches that have only parts of it. */
static const uint8_t *packbuf_i_take_cell(packbuf_i_plan *plan, const packbuf_i_node *node, uint64_t row,
                                          packbuf_status *status) {
  packbuf_i_sink sink;
  sink.capacity = node->sizes[row];
  sink.size = sink.limit = 0;
  sink.at = (uint8_t *)packbuf_arena_alloc(plan->arena, (size_t)sink.capacity, 1);
  *status = sink.at ? packbuf_i_push_cells(node, &sink, row, row + 1, plan->error) : packbuf_i_plan_no_memory(plan);
  if (!*status && sink.size != sink.capacity) *status = packbuf_i_changed(plan->error, node);
  return sink.at;
}

static packbuf_i_stretch *packbuf_i_stretch_of(const packbuf_i_split *split, uint32_t part, int data) {
  return data ? &split->parts[part].data : &split->parts[part].index;
}

/* Finds where the stretches of a section that begin inside a buffer begin in it. Both ascend. */
static packbuf_status packbuf_i_locate(packbuf_i_plan *plan, packbuf_i_split *split, int data) {
  uint64_t section = data ? packbuf_i_data_at(plan) : plan->head_length;
  uint32_t part = 0;
  for (uint32_t i = 0; i < plan->buffer_count; i++) {
    const packbuf_i_planned *buffer = &plan->buffers[i];
    packbuf_i_mark mark;
    packbuf_status status = PACKBUF_OK;
    memset(&mark, 0, sizeof mark);
    if (buffer->storage != PACKBUF_STORED || (buffer->role == PACKBUF_ROLE_DATA) != data || buffer->packing) continue;
    for (; part < split->count; part++) {
      packbuf_i_stretch *stretch = packbuf_i_stretch_of(split, part, data), *before;
      uint64_t at = stretch->from + section, row = mark.row;
      int again = mark.skip != 0; /* whether the mark's cell is at hand */
      if (stretch->from < stretch->to && at >= buffer->offset + buffer->length) break;
      stretch->buffer = i;
      if (at <= buffer->offset || stretch->from == stretch->to) continue;
      packbuf_i_mark_to(buffer, &mark, at - buffer->offset);
      stretch->mark = mark;
      if (!buffer->pushed || !mark.skip) continue;
      before = packbuf_i_stretch_of(split, part - 1, data);
      stretch->head =
          again && row == mark.row ? before->head : packbuf_i_take_cell(plan, buffer->node, mark.row, &status);
      before->tail = stretch->head;
      if (status) return status;
    }
  }
  for (; part < split->count; part++) packbuf_i_stretch_of(split, part, data)->buffer = plan->buffer_count;
  return PACKBUF_OK;
}

/* The same where buffers are packed: the plain data, then the stripes, by the bytes that they take plain. The index is
 * for packbuf_write_finish. */
static void packbuf_i_packed_border(const packbuf_i_plan *plan, const packbuf_i_split *split, uint64_t part,
                                    uint64_t count, uint64_t *data, uint64_t *stripe) {
  const uint64_t stripe_bytes = PACKBUF_I_STRIPE * PACKBUF_I_BLOCK_BYTES;
  const uint64_t work = plan->plain_length + split->stripe_count * stripe_bytes;
  const uint64_t at = work / count * part + work % count * part / count;
  *data = part == count || at >= plan->plain_length ? plan->plain_length : at / PACKBUF_I_CHUNK * PACKBUF_I_CHUNK;
  *stripe = at <= plan->plain_length ? 0 : (at - plan->plain_length + stripe_bytes / 2) / stripe_bytes;
  if (part == count || *stripe > split->stripe_count) *stripe = split->stripe_count;
}

/* The stripes of all packed data buffers, and where each begins. */
static packbuf_status packbuf_i_find_stripes(packbuf_i_plan *plan, packbuf_i_split *split) {
  uint64_t at = 0;
  for (uint32_t i = 0; i < plan->buffer_count; i++)
    if (packbuf_i_packed_data(&plan->buffers[i]))
      split->stripe_count += (plan->buffers[i].blocks - 1) / PACKBUF_I_STRIPE + 1;
  split->stripes = (packbuf_i_stripe *)packbuf_i_array(plan->arena, split->stripe_count, sizeof *split->stripes);
  if (!split->stripes) return packbuf_i_plan_no_memory(plan);
  for (uint32_t i = 0; i < plan->buffer_count; i++) {
    const packbuf_i_planned *buffer = &plan->buffers[i];
    packbuf_i_mark mark;
    memset(&mark, 0, sizeof mark);
    for (uint64_t first = 0; packbuf_i_packed_data(buffer) && first < buffer->blocks; first += PACKBUF_I_STRIPE, at++) {
      packbuf_i_mark_to(buffer, &mark, first * PACKBUF_I_BLOCK_BYTES);
      split->stripes[at].buffer = i;
      split->stripes[at].first = first;
      split->stripes[at].mark = mark;
      split->stripes[at].turn = UINT64_MAX;
    }
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_make_split(packbuf_i_plan *plan, uint32_t wanted) {
  packbuf_i_split *split = (packbuf_i_split *)packbuf_arena_alloc(plan->arena, sizeof *split, 8);
  packbuf_i_part *parts = (packbuf_i_part *)packbuf_i_array(plan->arena, wanted, sizeof *parts);
  packbuf_status status;
  if (!split || !parts) return packbuf_i_plan_no_memory(plan);
  memset(parts, 0, wanted * sizeof *parts);
  split->wanted = wanted;
  split->parts = parts;
  split->count = 0;
  split->stripes = NULL;
  split->stripe_count = 0;
  status = plan->packed ? packbuf_i_find_stripes(plan, split) : PACKBUF_OK;
  if (status) return status;
  for (uint32_t i = 0; i < wanted; i++) {
    packbuf_i_part *part = &parts[split->count];
    if (plan->packed) {
      packbuf_i_packed_border(plan, split, i, wanted, &part->data.from, &part->stripe);
      packbuf_i_packed_border(plan, split, i + 1, wanted, &part->data.to, &part->stripe_end);
    } else {
      packbuf_i_border(plan, i, wanted, &part->index.from, &part->data.from);
      packbuf_i_border(plan, i + 1, wanted, &part->index.to, &part->data.to);
    }
    split->count +=
        part->index.from < part->index.to || part->data.from < part->data.to || part->stripe < part->stripe_end;
  }
  status = packbuf_i_locate(plan, split, 1);
  if (!status && !plan->packed) status = packbuf_i_locate(plan, split, 0);
  if (!status) plan->split = split;
  return status;
}

PACKBUF_API packbuf_status packbuf_write_split(packbuf_batch *batch, uint32_t wanted, uint32_t *parts,
                                               packbuf_error *error) {
  packbuf_error local;
  uint64_t size;
  packbuf_status status = packbuf_measure(batch, &size, error);
  if (status) return status;
  if (!wanted || !parts)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "wanted must be 1 or more, and parts be given",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (wanted > PACKBUF_MAX_PARTS) wanted = PACKBUF_MAX_PARTS;
  if (!batch->plan->split || batch->plan->split->wanted != wanted) {
    batch->plan->error = error ? error : &local;
    status = packbuf_i_make_split(batch->plan, wanted);
  }
  if (!status) *parts = batch->plan->split->count;
  return status;
}

/* Packs a stripe where it would lie plain; places count from its first block. */
static packbuf_status packbuf_i_write_stripe(const packbuf_i_plan *plan, packbuf_i_stripe *stripe, uint8_t *dst,
                                             packbuf_error *error) {
  packbuf_i_planned *buffer = &plan->buffers[stripe->buffer];
  const uint64_t begin = stripe->first * PACKBUF_I_BLOCK_BYTES;
  uint64_t end = stripe->first + PACKBUF_I_STRIPE, room_end, at = begin, room[PACKBUF_I_PAYLOAD_ROOM / 8];
  packbuf_i_block_writer w;
  packbuf_status status = PACKBUF_OK;
  if (end > buffer->blocks) end = buffer->blocks;
  room_end = end < buffer->blocks ? end * PACKBUF_I_BLOCK_BYTES : packbuf_i_round_up(buffer->plain, 6);
  stripe->turn = UINT64_MAX;
  packbuf_i_blocks_begin(&w, buffer, &stripe->mark, stripe->first, error);
  while (!status && w.next < end) {
    const int straight = room_end - at >= PACKBUF_I_PAYLOAD_ROOM; /* what lies behind may be another thread's */
    uint8_t *to = dst + buffer->room + at;
    uint32_t size = 0;
    status = packbuf_i_blocks_next(&w, (at - begin) / 64, straight ? to : (uint8_t *)room, &size);
    if (!status && size > room_end - at) status = packbuf_i_changed(error, buffer->node);
    if (!status && !straight) memcpy(to, room, size);
    at += size;
  }
  stripe->size = at - begin;
  if (!status) stripe->turn = plan->turn;
  return status;
}

PACKBUF_API packbuf_status packbuf_write_part(const packbuf_batch *batch, uint32_t part, void *dst, uint64_t capacity,
                                              packbuf_error *error) {
  const packbuf_i_split *split = batch && batch->plan ? batch->plan->split : NULL;
  packbuf_status status;
  if (!split || part >= split->count)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "there is no such part: call packbuf_write_split before",
                          PACKBUF_NOWHERE, part);
  status = packbuf_i_check_dst(batch->plan, dst, capacity, error);
  if (status) return status;
  status = packbuf_i_write_stretches(batch->plan, &split->parts[part].data, &split->parts[part].index, (uint8_t *)dst,
                                     error);
  for (uint64_t i = split->parts[part].stripe; !status && i < split->parts[part].stripe_end; i++)
    status = packbuf_i_write_stripe(batch->plan, &split->stripes[i], (uint8_t *)dst, error);
  return status;
}

/* Whether all stripes are packed, and none moved since. */
static int packbuf_i_stripes_packed(const packbuf_i_plan *plan) {
  int all = plan->split != NULL;
  for (uint64_t i = 0; all && i < plan->split->stripe_count; i++) all = plan->split->stripes[i].turn == plan->turn;
  return all;
}

/* Moves the places in `count` headers. */
static void packbuf_i_move_places(uint8_t *headers, uint64_t count, uint32_t by) {
  for (; count; count--, headers += 16) packbuf_i_store32(headers + 8, packbuf_i_load32(headers + 8) + by);
}

/* Moves the stripes together behind the plain data, and tells their headers so. */
static void packbuf_i_close_stripes(packbuf_i_plan *plan, uint8_t *dst) {
  uint64_t at = packbuf_i_data_at(plan) + plan->plain_length, end = at;
  plan->turn++;
  for (uint64_t i = 0; i < plan->split->stripe_count; i++) {
    const packbuf_i_stripe *stripe = &plan->split->stripes[i];
    packbuf_i_planned *buffer = &plan->buffers[stripe->buffer];
    const uint64_t blocks = buffer->blocks - stripe->first;
    if (stripe->first == 0) {
      at = packbuf_i_round_up(end, plan->options->alignment_exponent);
      memset(dst + end, 0, (size_t)(at - end));
      buffer->offset = end = at;
    }
    memmove(dst + end, dst + buffer->room + stripe->first * PACKBUF_I_BLOCK_BYTES, (size_t)stripe->size);
    packbuf_i_move_places(buffer->headers + stripe->first * 16,
                          blocks < PACKBUF_I_STRIPE ? blocks : (uint64_t)PACKBUF_I_STRIPE, (uint32_t)((end - at) / 64));
    end += stripe->size;
    buffer->length = end - at;
  }
  at = packbuf_i_round_up(end, plan->options->alignment_exponent);
  memset(dst + end, 0, (size_t)(at - end));
  packbuf_i_set_data_length(plan, at - packbuf_i_data_at(plan));
}

/* What the parts of a batch leave undone where buffers are packed: the stripes where they belong, the checksums from
 * there on, the index. */
static packbuf_status packbuf_i_finish_packed(packbuf_i_plan *plan, uint8_t *dst, packbuf_error *error) {
  uint8_t *data = dst + packbuf_i_data_at(plan), *checksums = dst + plan->head_length;
  const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
  uint64_t at = plan->plain_length / PACKBUF_I_CHUNK * PACKBUF_I_CHUNK;
  packbuf_i_close_stripes(plan, dst);
  for (; plan->checksums && at < plan->data_length; at += PACKBUF_I_CHUNK) {
    const uint64_t left = plan->data_length - at;
    packbuf_i_store32(checksums + at / PACKBUF_I_CHUNK * 4,
                      kernel->crc(0, data + at, (size_t)(left < PACKBUF_I_CHUNK ? left : PACKBUF_I_CHUNK)));
  }
  return packbuf_i_write_index(plan, dst, error);
}

PACKBUF_API packbuf_status packbuf_write_finish(const packbuf_batch *batch, void *dst, uint64_t capacity,
                                                uint64_t *size, packbuf_error *error) {
  packbuf_i_plan *plan = batch ? batch->plan : NULL;
  packbuf_status status = plan ? packbuf_i_check_dst(plan, dst, capacity, error)
                               : packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "the batch is not measured",
                                                PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (!status && plan->packed && !packbuf_i_stripes_packed(plan))
    status =
        packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT,
                       "not all parts were written since packbuf_write_split, packbuf_write or packbuf_write_finish",
                       PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (!status && plan->packed) status = packbuf_i_finish_packed(plan, (uint8_t *)dst, error);
  if (status) return status;
  packbuf_i_finish_head(plan, (uint8_t *)dst);
  if (size) *size = plan->total_length;
  return PACKBUF_OK;
}
