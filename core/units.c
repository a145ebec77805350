/* core/units.c: the units of a planned buffer, block after block, for who packs them: in place where a block lies in
 * one run of host memory, else gathered in a room that stays in the first-level cache. In native byte order; bools are
 * checked on the way.
 * May use: pull, rows, seek, gather, layout, blocks (their size). Must not know: how blocks are packed. */

typedef struct packbuf_i_units {
  const packbuf_i_planned *buffer;
  packbuf_error *error;
  packbuf_i_gather gather;
  uint64_t done;                /* bytes of the buffer that were handed out */
  packbuf_i_run run;            /* what is left of the present one */
  const packbuf_device *device; /* of the run */
  int by_rows, swapped;         /* swapped: the runs are little-endian and the machine is not */
  unsigned row, rows;           /* the next of the runs ahead, and how many these are */
  packbuf_i_run ahead[PACKBUF_I_ROWS_AT_ONCE];
  packbuf_i_pull pull;
  uint64_t room[PACKBUF_I_BLOCK_BYTES / 8];
} packbuf_i_units;

/* Starts at byte `at` of the buffer, where the mark is. */
static void packbuf_i_units_begin(packbuf_i_units *source, const packbuf_i_planned *buffer, const packbuf_i_mark *mark,
                                  uint64_t at, packbuf_error *error) {
  uint64_t skip = packbuf_i_pull_seek(&source->pull, buffer, mark);
  source->buffer = buffer;
  source->error = error;
  source->gather = packbuf_i_gather_best();
  source->done = at;
  source->by_rows = buffer->role == PACKBUF_ROLE_DATA && packbuf_i_has_rows(buffer->node);
  source->swapped = packbuf_i_big_endian() && buffer->role != PACKBUF_ROLE_DATA && buffer->dtype.bits > 8;
  source->row = source->rows = 0;
  source->device = NULL;
  source->run.bytes = NULL;
  source->run.size = 0;
  while (skip) {
    uint64_t less;
    source->run = packbuf_i_pull_next(&source->pull);
    source->device = source->pull.device;
    if (!source->run.size) break;
    less = skip < source->run.size ? skip : source->run.size;
    source->run.bytes += less;
    source->run.size -= less;
    skip -= less;
  }
}

/* The next run that is not empty; 0 at the end. */
static int packbuf_i_units_run(packbuf_i_units *source) {
  if (source->row < source->rows) {
    source->run = source->ahead[source->row++];
    return 1;
  }
  if (source->by_rows) {
    source->rows = packbuf_i_pull_rows(&source->pull, source->ahead);
    source->row = 0;
    source->device = NULL;
    if (source->rows) return packbuf_i_units_run(source);
  }
  source->run = packbuf_i_pull_next(&source->pull);
  source->device = source->pull.device;
  return source->run.size != 0;
}

/* `size` bytes from several runs, from a device, or in another byte order, to the room. */
static packbuf_status packbuf_i_units_gather(packbuf_i_units *source, uint64_t size) {
  uint8_t *to = (uint8_t *)source->room;
  for (uint64_t at = 0, piece; at < size; at += piece) {
    if (!source->run.size && !packbuf_i_units_run(source)) {
      if (source->pull.status) return packbuf_i_hook_failed(source->error, source->buffer->node, source->pull.status);
      return packbuf_i_changed(source->error, source->buffer->node);
    }
    piece = source->run.size < size - at ? source->run.size : size - at;
    if (source->device) {
      const packbuf_status status =
          source->device->copy(source->device->context, to + at, source->run.bytes, (size_t)piece);
      if (status) return packbuf_i_hook_failed(source->error, source->buffer->node, status);
    } else {
      source->gather(to + at, source->run.bytes, (size_t)piece,
                     source->row < source->rows ? source->ahead[source->row].bytes : NULL);
    }
    source->run.bytes += piece;
    source->run.size -= piece;
  }
  if (source->swapped) packbuf_i_swap(to, size, source->buffer->dtype.bits / 8u);
  return PACKBUF_OK;
}

/* Whether bytes that were handed out are this room's own, which the next call writes over; else they are the caller's,
 * and stay. */
static int packbuf_i_units_own(const packbuf_i_units *source, const uint8_t *bytes) {
  return (uintptr_t)bytes - (uintptr_t)source < sizeof *source;
}

/* The next `size` bytes, a block or less: *bytes until the next call; *ahead: where the block after it begins, when it
 * is known to lie there whole, or NULL. */
static packbuf_status packbuf_i_units_next(packbuf_i_units *source, uint64_t size, const uint8_t **bytes,
                                           const uint8_t **ahead) {
  const uint64_t at = source->done;
  packbuf_status status = PACKBUF_OK;
  *ahead = NULL;
  if (!source->run.size) (void)packbuf_i_units_run(source);
  if (source->run.size >= size && !source->device && !source->swapped) {
    *bytes = source->run.bytes;
    source->run.bytes += size;
    source->run.size -= size;
    if (source->run.size >= PACKBUF_I_BLOCK_BYTES) *ahead = source->run.bytes;
  } else {
    status = packbuf_i_units_gather(source, size);
    *bytes = (const uint8_t *)source->room;
  }
  source->done += size;
  if (!status && source->buffer->dtype.code == PACKBUF_DTYPE_BOOL)
    status = packbuf_i_check_bools(source->error, source->buffer, *bytes, size, at);
  return status;
}
