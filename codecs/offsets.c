/* codecs/offsets.c: the rules of offsets, I7 and I8, which all ragged leaves share.
 * May use: base, access, cells. Must not know: what lies between two offsets. */

#define PACKBUF_I_VERIFY_BLOCK 256 /* elements that a check fetches at a time */

/* Elements first to first + count (at most PACKBUF_I_VERIFY_BLOCK) of 64 bits, fetched once. */
static void packbuf_i_fetch_block(const packbuf_buffer *buffer, uint64_t first, size_t count, uint64_t *out) {
  if (buffer->bytes && !packbuf_i_big_endian()) {
    memcpy(out, buffer->bytes + first * 8,
           count * 8); /* into the caller's memory: out of reach of a second fetch, as it is used in place */
    return;
  }
  if (buffer->headers && packbuf_i_unpack_units(buffer, first, count, (uint8_t *)out)) return;
  for (size_t i = 0; i < count; i++) (void)packbuf_i_get64(buffer, first + i, &out[i]);
}

/* I7: offsets start at 0, do not descend and end at `end`. */
static packbuf_status packbuf_i_verify_offsets(const packbuf_column *c, const packbuf_buffer *offsets, uint64_t end,
                                               packbuf_error *error) {
  uint64_t before = 0, block[PACKBUF_I_VERIFY_BLOCK], first = 0, last = 0, i = 0;
  if (!packbuf_i_there(offsets) || !packbuf_i_readable(offsets) || offsets->count == 0) return PACKBUF_OK;
  if (packbuf_i_computed(offsets)) { /* constant or sequence: the ends decide, since a sequence does not overflow */
    (void)packbuf_i_get64(offsets, 0, &first);
    (void)packbuf_i_get64(offsets, offsets->count - 1, &last);
    if (first == 0 && last == end) return PACKBUF_OK;
    return packbuf_i_broken_cell(c, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, offsets, 0), PACKBUF_NOWHERE, error);
  }
  while (i < offsets->count) {
    const size_t count =
        offsets->count - i < PACKBUF_I_VERIFY_BLOCK ? (size_t)(offsets->count - i) : PACKBUF_I_VERIFY_BLOCK;
    packbuf_i_fetch_block(offsets, i, count, block);
    for (size_t k = 0; k < count; k++, i++) {
      if (PACKBUF_I_UNLIKELY(block[k] < before || (i == 0 && block[k] != 0)))
        return packbuf_i_broken_cell(c, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, offsets, i), i, error);
      before = block[k];
    }
  }
  if (before == end) return PACKBUF_OK;
  return packbuf_i_broken_cell(c, PACKBUF_RULE_I7, packbuf_i_element_at(c->view, offsets, offsets->count - 1),
                               offsets->count - 1, error);
}

/* I8: an absent cell has no extent. */
static packbuf_status packbuf_i_verify_extents(const packbuf_column *c, const packbuf_buffer *offsets,
                                               packbuf_error *error) {
  const packbuf_buffer *with[2];
  uint64_t rows;
  with[0] = offsets, with[1] = &c->validity;
  if (!packbuf_i_there(offsets) || !packbuf_i_there(&c->validity) || !packbuf_i_readable(offsets) ||
      !packbuf_i_readable(&c->validity))
    return PACKBUF_OK;
  rows = packbuf_i_rows_to_check(c->node.rows, with, 2);
  for (uint64_t row = 0; row < rows; row++) {
    uint64_t from = 0, to = 0;
    if (row % 64 == 0 && packbuf_i_get_bits(&c->validity, row / 64) == UINT64_MAX) {
      row += 63;
      continue;
    }
    if (packbuf_i_present(c, row)) continue;
    if (!packbuf_i_get64(offsets, row, &from) || !packbuf_i_get64(offsets, row + 1, &to) || from != to)
      return packbuf_i_broken_cell(c, PACKBUF_RULE_I8, packbuf_i_element_at(c->view, offsets, row + 1), row, error);
  }
  return PACKBUF_OK;
}

/* I7 and I8 of a leaf with one run of elements a cell. */
static packbuf_status packbuf_i_runs_index(const packbuf_column *c, packbuf_error *error) {
  const packbuf_status status = packbuf_i_verify_offsets(c, &c->offsets, c->data.count, error);
  return status != PACKBUF_OK ? status : packbuf_i_verify_extents(c, &c->offsets, error);
}
