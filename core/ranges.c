/* core/ranges.c: which bytes of the data section selections need: the pieces of their cells as byte ranges, sorted and
 * joined where the hole between two is small enough. Reads head and index only.
 * May use: base, arena, access, picked. Must not know: how ranges are fetched. */

typedef struct packbuf_i_ranges {
  packbuf_arena *arena;
  packbuf_range *list;
  uint64_t count, room, gap;
  uint64_t data, end; /* of the data section */
  unsigned flags;
  int unsorted;
} packbuf_i_ranges;

/* Joins `more` to a range that begins no later; 0 when the hole is too large. */
static int packbuf_i_merge_range(packbuf_range *range, const packbuf_range *more, uint64_t gap) {
  const uint64_t end = range->offset + range->length, more_end = more->offset + more->length;
  if (more->offset > end && more->offset - end > gap) return 0;
  if (more_end > end) range->length = more_end - range->offset;
  return 1;
}

static packbuf_status packbuf_i_grow_ranges(packbuf_i_ranges *r, const packbuf_i_picked *p) {
  const uint64_t room = r->room ? r->room * 2 : 64;
  packbuf_range *list;
  if (room > p->column.view->limits.decoded_bytes / sizeof *list) return packbuf_i_too_much(p);
  list = (packbuf_range *)packbuf_i_array(r->arena, room, sizeof *list);
  if (!list) return packbuf_i_no_memory(p->error);
  if (r->count) memcpy(list, r->list, (size_t)r->count * sizeof *list);
  r->list = list;
  r->room = room;
  return PACKBUF_OK;
}

/* Adds bytes of the packed buffer, which end within it; those of head and index are there already. */
static packbuf_status packbuf_i_add_range(packbuf_i_ranges *r, const packbuf_i_picked *p, uint64_t offset,
                                          uint64_t length) {
  uint64_t end = offset + length;
  packbuf_range range;
  if (offset < r->data) offset = r->data;
  if (offset >= end) return PACKBUF_OK;
  if (r->flags & PACKBUF_RANGES_CHUNKS) {
    const uint64_t over = (end - r->data) % PACKBUF_I_CHUNK, more = over ? PACKBUF_I_CHUNK - over : 0;
    offset -= (offset - r->data) % PACKBUF_I_CHUNK;
    end = more < r->end - end ? end + more : r->end;
  }
  range.offset = offset;
  range.length = end - offset;
  if (r->count != 0) {
    packbuf_range *last = &r->list[r->count - 1];
    if (offset >= last->offset && packbuf_i_merge_range(last, &range, r->gap)) return PACKBUF_OK;
    if (offset < last->offset) r->unsorted = 1;
  }
  if (r->count == r->room) {
    const packbuf_status status = packbuf_i_grow_ranges(r, p);
    if (status != PACKBUF_OK) return status;
  }
  r->list[r->count++] = range;
  return PACKBUF_OK;
}

/* The bytes of the blocks that hold a piece of a packed buffer. */
static packbuf_status packbuf_i_add_blocks(packbuf_i_ranges *r, const packbuf_i_picked *p, const packbuf_piece *piece) {
  const packbuf_buffer *data = &p->column.data;
  const unsigned element = packbuf_i_unit_bits(data->dtype) / 8, full = PACKBUF_I_BLOCK_BYTES / element;
  packbuf_i_packed first, last;
  if (piece->count == 0) return PACKBUF_OK;
  if (!packbuf_i_find_block(data, piece->first / full, &first) ||
      !packbuf_i_find_block(data, (piece->first + piece->count - 1) / full, &last) || last.at + last.size < first.at)
    return packbuf_i_not_fetched(data, piece->first * element, piece->count * element, PACKBUF_NOWHERE, p->error);
  return packbuf_i_add_range(r, p, data->offset + first.at, last.at + last.size - first.at);
}

static packbuf_status packbuf_i_add_piece(const packbuf_i_picked *p, void *into, const packbuf_piece *piece,
                                          uint64_t row) {
  packbuf_i_ranges *r = (packbuf_i_ranges *)into;
  const packbuf_buffer *data = &p->column.data;
  const uint64_t element = packbuf_i_element_bits(data->dtype) / 8;
  packbuf_piece bytes = *piece;
  if (packbuf_i_is_media_list(&p->column)) {
    const packbuf_status status = packbuf_i_picked_items(p, piece, row, &bytes);
    if (status != PACKBUF_OK) return status;
  }
  if (data->headers) return packbuf_i_add_blocks(r, p, &bytes);
  return packbuf_i_add_range(r, p, data->offset + bytes.first * element, bytes.count * element);
}

/* Regular cells: one range when the holes between rows are small enough; holes below a chunk are, between whole chunks.
 */
static packbuf_status packbuf_i_add_regular(packbuf_i_ranges *r, packbuf_i_picked *p, const packbuf_i_row_run *run,
                                            const packbuf_i_regular *regular) {
  const uint64_t element = packbuf_i_element_bits(p->column.data.dtype) / 8, size = regular->each * element;
  const uint64_t step = run->step < 0 ? 0 - (uint64_t)run->step : (uint64_t)run->step;
  const uint64_t chunk = r->flags & PACKBUF_RANGES_CHUNKS ? PACKBUF_I_CHUNK - 1 : 0,
                 gap = r->gap > chunk ? r->gap : chunk;
  packbuf_status status = PACKBUF_OK;
  packbuf_piece piece;
  uint64_t hole;
  if (size == 0) return PACKBUF_OK;
  if (run->index == NULL && packbuf_i_mul(step - 1, size, &hole) && hole <= gap) {
    const uint64_t last = packbuf_i_run_row(run, run->count - 1), low = last < run->first ? last : run->first,
                   high = last < run->first ? run->first : last;
    piece.first = regular->base + low * regular->each;
    piece.count = (high - low + 1) * regular->each;
    return packbuf_i_add_piece(p, r, &piece, low);
  }
  piece.count = regular->each;
  if (run->index == NULL) status = packbuf_i_may_ask(p, run->count);
  for (uint64_t k = 0; status == PACKBUF_OK && k < run->count; k++) {
    const uint64_t at = run->index == NULL && run->step < 0 ? run->count - 1 - k : k; /* ascending */
    const uint64_t row = packbuf_i_run_row(run, at);
    piece.first = regular->base + row * regular->each;
    status = packbuf_i_add_piece(p, r, &piece, row);
  }
  return status;
}

static packbuf_status packbuf_i_add_run(packbuf_i_ranges *r, packbuf_i_picked *p, const packbuf_i_row_run *run) {
  packbuf_i_regular regular;
  if (run->count == 0) return PACKBUF_OK;
  if (packbuf_i_regular_cells(&p->column, &regular)) return packbuf_i_add_regular(r, p, run, &regular);
  return packbuf_i_run_pieces(p, run, packbuf_i_add_piece, r);
}

static packbuf_status packbuf_i_add_node(packbuf_i_ranges *r, const packbuf_selection *selection, uint32_t node,
                                         packbuf_error *error) {
  packbuf_i_picked p;
  packbuf_i_row_run run;
  packbuf_status status = packbuf_i_pick(selection, node, &p, error);
  if (status != PACKBUF_OK || !packbuf_i_has_data(&p.column)) return status;
  if (p.column.data.storage != PACKBUF_STORED && p.column.data.storage != PACKBUF_ALIAS) return PACKBUF_OK;
  do {
    status = packbuf_i_next_run(&p, &run);
    if (status == PACKBUF_OK) status = packbuf_i_add_run(r, &p, &run);
  } while (status == PACKBUF_OK && run.count != 0);
  return status;
}

static void packbuf_i_sift_range(packbuf_range *list, uint64_t at, uint64_t count) {
  const packbuf_range moved = list[at];
  for (uint64_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && list[child].offset < list[child + 1].offset) child++;
    if (list[child].offset <= moved.offset) break;
    list[at] = list[child];
  }
  list[at] = moved;
}

/* Heapsort by offset, then joins neighbours. */
static void packbuf_i_sort_ranges(packbuf_i_ranges *r) {
  uint64_t kept = 0;
  for (uint64_t i = r->count / 2; i-- > 0;) packbuf_i_sift_range(r->list, i, r->count);
  for (uint64_t end = r->count; end-- > 1;) {
    const packbuf_range largest = r->list[0];
    r->list[0] = r->list[end];
    r->list[end] = largest;
    packbuf_i_sift_range(r->list, 0, end);
  }
  for (uint64_t i = 1; i < r->count; i++) {
    if (!packbuf_i_merge_range(&r->list[kept], &r->list[i], r->gap)) r->list[++kept] = r->list[i];
  }
  r->count = r->count ? kept + 1 : 0;
}

PACKBUF_API packbuf_status packbuf_select_ranges(const packbuf_selection *selections, size_t count, uint64_t gap,
                                                 unsigned flags, packbuf_arena *arena, packbuf_range **ranges,
                                                 uint64_t *range_count, packbuf_error *error) {
  packbuf_i_ranges r;
  packbuf_status status = PACKBUF_OK;
  *ranges = NULL;
  *range_count = 0;
  if ((flags & ~(unsigned)PACKBUF_RANGES_CHUNKS) != 0)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "a flag is unknown", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  memset(&r, 0, sizeof r);
  r.arena = arena;
  r.gap = gap;
  r.flags = flags;
  for (size_t s = 0; status == PACKBUF_OK && s < count; s++) {
    r.data = selections[s].view->head_length + selections[s].view->index_length;
    r.end = selections[s].view->total_length;
    for (uint32_t i = 0; status == PACKBUF_OK && i < selections[s].node_count; i++) {
      const uint32_t node = selections[s].nodes[i];
      if (selections[s].flags[node] == PACKBUF_I_CHOSEN) status = packbuf_i_add_node(&r, &selections[s], node, error);
    }
  }
  if (status != PACKBUF_OK) return status;
  if (r.unsorted) packbuf_i_sort_ranges(&r);
  *ranges = r.list;
  *range_count = r.count;
  return PACKBUF_OK;
}
