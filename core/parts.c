/* core/parts.c: a plan divided into parts that threads write side by side. A part is a stretch of the index and one of
 * the data, whose borders lie at multiples of 64 KiB, so that each checksum belongs to one part. The bytes are those of
 * packbuf_write, which is the same code with one part.
 * May use: arena, batch, layout, seek, write. Must not know: threads. */

typedef struct packbuf_i_part {
  packbuf_i_stretch index, data;
} packbuf_i_part;

typedef struct packbuf_i_split {
  uint32_t wanted, count;
  packbuf_i_part *parts;
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
  sink.size = 0;
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
    if (buffer->storage != PACKBUF_STORED || (buffer->role == PACKBUF_ROLE_DATA) != data) continue;
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

static packbuf_status packbuf_i_make_split(packbuf_i_plan *plan, uint32_t wanted) {
  packbuf_i_split *split = (packbuf_i_split *)packbuf_arena_alloc(plan->arena, sizeof *split, 8);
  packbuf_i_part *parts = (packbuf_i_part *)packbuf_i_array(plan->arena, wanted, sizeof *parts);
  packbuf_status status;
  if (!split || !parts) return packbuf_i_plan_no_memory(plan);
  memset(parts, 0, wanted * sizeof *parts);
  split->wanted = wanted;
  split->parts = parts;
  split->count = 0;
  for (uint32_t i = 0; i < wanted; i++) {
    packbuf_i_part *part = &parts[split->count];
    packbuf_i_border(plan, i, wanted, &part->index.from, &part->data.from);
    packbuf_i_border(plan, i + 1, wanted, &part->index.to, &part->data.to);
    split->count += part->index.from < part->index.to || part->data.from < part->data.to;
  }
  status = packbuf_i_locate(plan, split, 1);
  if (!status) status = packbuf_i_locate(plan, split, 0);
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

PACKBUF_API packbuf_status packbuf_write_part(const packbuf_batch *batch, uint32_t part, void *dst, uint64_t capacity,
                                              packbuf_error *error) {
  const packbuf_i_split *split = batch && batch->plan ? batch->plan->split : NULL;
  packbuf_status status;
  if (!split || part >= split->count)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "there is no such part: call packbuf_write_split before",
                          PACKBUF_NOWHERE, part);
  status = packbuf_i_check_dst(batch->plan, dst, capacity, error);
  if (status) return status;
  return packbuf_i_write_stretches(batch->plan, &split->parts[part].data, &split->parts[part].index, (uint8_t *)dst,
                                   error);
}
