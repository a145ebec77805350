/* core/scatter.c: a plan as a list of memory segments: the caller's own memory where a run of it is long, a staging
 * memory for the rest. Counting and listing are one walk.
 * May use: batch, plan, layout, pull, write, checksums. Must not know: what sends the segments. */

#define PACKBUF_I_LEAST 4096 /* bytes below which a segment costs more than the copy */

typedef struct packbuf_i_lister {
  const packbuf_i_plan *plan;
  packbuf_error *error;
  uint64_t least, most;
  packbuf_segment *segments; /* NULL: only counts */
  uint8_t *staging;
  uint64_t room, staging_room; /* segments and bytes there are */
  uint64_t count, staged;
  uint64_t last_size; /* of the last segment, which ends at last_end or (NULL) in the staging memory */
  const uint8_t *last_end;
  uint64_t at, summed; /* of the data section: next byte; bytes in the checksums */
  uint32_t crc;
} packbuf_i_lister;

/* The next `size` bytes lie at `bytes`, or (NULL) are the next of the staging memory, where there is room for them. */
static packbuf_status packbuf_i_list_add(packbuf_i_lister *lister, const uint8_t *bytes, uint64_t size) {
  while (size) {
    uint64_t piece = lister->count && lister->last_end == bytes ? lister->most - lister->last_size : 0;
    if (!piece) {
      if (lister->segments && lister->count == lister->room) return packbuf_i_changed(lister->error, NULL);
      if (lister->segments) lister->segments[lister->count].bytes = bytes ? bytes : lister->staging + lister->staged;
      lister->count++;
      lister->last_size = 0;
      piece = lister->most;
    }
    if (piece > size) piece = size;
    lister->last_size += piece;
    if (lister->segments) lister->segments[lister->count - 1].size = lister->last_size;
    if (bytes) bytes += piece;
    else lister->staged += piece;
    lister->last_end = bytes;
    size -= piece;
  }
  return PACKBUF_OK;
}

/* Takes data into the checksums. */
static void packbuf_i_list_sum(packbuf_i_lister *lister, const uint8_t *bytes, uint64_t size) {
  uint8_t *checksums = lister->staging + lister->plan->head_length;
  while (lister->plan->checksums && size) {
    uint64_t left = PACKBUF_I_CHUNK - lister->summed % PACKBUF_I_CHUNK, piece = size < left ? size : left;
    lister->crc = packbuf_checksum(lister->crc, bytes, (size_t)piece);
    lister->summed += piece;
    bytes += piece;
    size -= piece;
    packbuf_i_store32(checksums + (lister->summed - 1) / PACKBUF_I_CHUNK * 4, lister->crc);
    if (piece == left) lister->crc = 0;
  }
}

/* Room for data in the staging memory; NULL: counting, or (then *status) none. */
static uint8_t *packbuf_i_list_room(packbuf_i_lister *lister, uint64_t size, packbuf_status *status) {
  *status = PACKBUF_OK;
  if (!lister->segments) return NULL;
  if (size <= lister->staging_room - lister->staged) return lister->staging + lister->staged;
  *status = packbuf_i_changed(lister->error, NULL);
  return NULL;
}

/* `size` bytes of data that were put where packbuf_i_list_room said. */
static packbuf_status packbuf_i_list_staged(packbuf_i_lister *lister, uint64_t size) {
  if (lister->segments) packbuf_i_list_sum(lister, lister->staging + lister->staged, size);
  lister->at += size;
  return packbuf_i_list_add(lister, NULL, size);
}

static packbuf_status packbuf_i_list_zeros(packbuf_i_lister *lister, uint64_t to) {
  packbuf_status status;
  uint64_t size = to - lister->at;
  uint8_t *room = packbuf_i_list_room(lister, size, &status);
  if (status) return status;
  if (room && size) memset(room, 0, (size_t)size);
  return packbuf_i_list_staged(lister, size);
}

/* A run that is copied: short, computed, on a device, or reversed. */
static packbuf_status packbuf_i_list_copy(packbuf_i_lister *lister, const packbuf_i_planned *buffer,
                                          const packbuf_device *device, packbuf_i_run run, uint64_t done) {
  packbuf_status status;
  uint8_t *room = packbuf_i_list_room(lister, run.size, &status);
  if (!status && room) status = packbuf_i_copy_run_to(lister->error, buffer, device, run, done, room);
  return status ? status : packbuf_i_list_staged(lister, run.size);
}

static packbuf_status packbuf_i_list_run(packbuf_i_lister *lister, const packbuf_i_planned *buffer,
                                         const packbuf_i_pull *pull, packbuf_i_run run, uint64_t done) {
  packbuf_status status = PACKBUF_OK;
  if (pull->device || run.size < lister->least || run.bytes == pull->scratch ||
      (packbuf_i_big_endian() && packbuf_i_swap_unit(buffer->dtype) > 1))
    return packbuf_i_list_copy(lister, buffer, pull->device, run, done);
  if (lister->segments) {
    if (buffer->dtype.code == PACKBUF_DTYPE_BOOL)
      status = packbuf_i_check_bools(lister->error, buffer, run.bytes, run.size, done);
    if (status) return status;
    packbuf_i_list_sum(lister, run.bytes, run.size);
  }
  lister->at += run.size;
  return packbuf_i_list_add(lister, run.bytes, run.size);
}

static packbuf_status packbuf_i_list_pulled(packbuf_i_lister *lister, const packbuf_i_planned *buffer) {
  packbuf_i_pull pull;
  uint64_t done = 0;
  packbuf_i_pull_start(&pull, buffer->node, buffer->role, buffer->dim);
  for (;;) {
    packbuf_status status;
    packbuf_i_run run = packbuf_i_pull_next(&pull);
    if (run.size == 0) break;
    if (run.size > buffer->length - done) return packbuf_i_changed(lister->error, buffer->node);
    status = packbuf_i_list_run(lister, buffer, &pull, run, done);
    if (status) return status;
    done += run.size;
  }
  if (pull.status) return packbuf_i_hook_failed(lister->error, buffer->node, pull.status);
  return done == buffer->length ? PACKBUF_OK : packbuf_i_changed(lister->error, buffer->node);
}

static packbuf_status packbuf_i_list_pushed(packbuf_i_lister *lister, const packbuf_i_planned *buffer) {
  packbuf_i_sink sink;
  packbuf_status status;
  sink.at = packbuf_i_list_room(lister, buffer->length, &status);
  sink.capacity = buffer->length;
  sink.size = sink.limit = 0;
  if (!status && sink.at) status = packbuf_i_push_cells(buffer->node, &sink, 0, buffer->node->rows, lister->error);
  if (status) return status;
  if (sink.at && sink.size != buffer->length) return packbuf_i_changed(lister->error, buffer->node);
  return packbuf_i_list_staged(lister, buffer->length);
}

/* Head and index, which lie at the start of the staging memory, then the data. */
static packbuf_status packbuf_i_list(packbuf_i_lister *lister) {
  const packbuf_i_plan *plan = lister->plan;
  packbuf_status status = packbuf_i_list_add(lister, NULL, packbuf_i_data_at(plan));
  for (uint32_t i = 0; i < plan->buffer_count && !status; i++) {
    const packbuf_i_planned *buffer = &plan->buffers[i];
    if (buffer->storage != PACKBUF_STORED || buffer->role != PACKBUF_ROLE_DATA) continue;
    status = packbuf_i_list_zeros(lister, buffer->offset - packbuf_i_data_at(plan));
    if (!status)
      status = buffer->pushed ? packbuf_i_list_pushed(lister, buffer) : packbuf_i_list_pulled(lister, buffer);
  }
  return status ? status : packbuf_i_list_zeros(lister, plan->data_length);
}

static packbuf_status packbuf_i_start_list(packbuf_i_lister *lister, packbuf_batch *batch,
                                           const packbuf_scatter *scatter, packbuf_error *error) {
  uint64_t size;
  packbuf_status status = packbuf_measure(batch, &size, error);
  memset(lister, 0, sizeof *lister);
  if (status) return status;
  if (!scatter)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "scatter must be given", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (batch->plan->packed)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT,
                          "a batch that is packed is no list of the caller's memory: ask for PACKBUF_PACKING_NONE",
                          PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  lister->plan = batch->plan;
  lister->error = error;
  lister->least = scatter->least ? scatter->least : PACKBUF_I_LEAST;
  lister->most = scatter->most ? scatter->most : UINT64_MAX;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_scatter_measure(packbuf_batch *batch, packbuf_scatter *scatter,
                                                   packbuf_error *error) {
  packbuf_i_lister lister;
  packbuf_status status = packbuf_i_start_list(&lister, batch, scatter, error);
  if (!status) status = packbuf_i_list(&lister);
  if (status) return status;
  scatter->count = lister.count;
  scatter->staging = lister.staged;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_scatter_list(packbuf_batch *batch, const packbuf_scatter *scatter,
                                                packbuf_segment *segments, void *staging, packbuf_error *error) {
  packbuf_i_lister lister;
  packbuf_i_stretch data, index;
  packbuf_status status = packbuf_i_start_list(&lister, batch, scatter, error);
  if (status) return status;
  if (!segments || !staging || scatter->staging < packbuf_i_data_at(lister.plan))
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT,
                          "segments and staging must be as large as packbuf_scatter_measure said", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  lister.segments = segments;
  lister.staging = (uint8_t *)staging;
  lister.room = scatter->count;
  lister.staging_room = scatter->staging;
  status = packbuf_i_list(&lister);
  if (!status && lister.count != scatter->count) status = packbuf_i_changed(error, NULL);
  if (status) return status;
  memset(&data, 0, sizeof data);
  memset(&index, 0, sizeof index);
  index.from = 4 * lister.plan->checksums;
  index.to = lister.plan->index_length;
  status = packbuf_i_write_stretches(lister.plan, &data, &index, lister.staging, error);
  if (status) return status;
  packbuf_i_close_head(
      lister.staging, lister.plan,
      packbuf_checksum(0, lister.staging + lister.plan->head_length, (size_t)lister.plan->index_length));
  return PACKBUF_OK;
}
