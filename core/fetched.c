/* core/fetched.c: where the bytes of a partial view lie: those at its base, and the ranges that were fetched besides.
 * Everything that reads stored bytes of a view that is not whole asks here.
 * May use: base. Must not know: records, cells, why something was fetched. */

/* The byte at `offset` of the packed buffer in memory, and how many follow it there, itself counted; NULL when it was
 * not fetched. */
static const uint8_t *packbuf_i_fetched_at(const packbuf_view *view, uint64_t offset, uint64_t *there) {
  uint64_t low = 0, high = view->fetched_count;
  const packbuf_fetched *range;
  if (offset < view->capacity) {
    *there = view->capacity - offset;
    return view->base + offset;
  }
  while (low < high) { /* the first range that begins after the byte */
    const uint64_t middle = low + (high - low) / 2;
    if (view->fetched[middle].offset <= offset) low = middle + 1;
    else high = middle;
  }
  if (low == 0) return NULL;
  range = &view->fetched[low - 1];
  if (offset - range->offset >= range->length) return NULL;
  *there = range->length - (offset - range->offset);
  return (const uint8_t *)range->bytes + (offset - range->offset);
}

/* `length` bytes in place; NULL when they do not all lie in one range. */
static const uint8_t *packbuf_i_fetched_whole(const packbuf_view *view, uint64_t offset, uint64_t length) {
  uint64_t there = 0;
  const uint8_t *bytes;
  if (length == 0) return view->base;
  bytes = packbuf_i_fetched_at(view, offset, &there);
  return there >= length ? bytes : NULL;
}

/* The first of `length` bytes that was not fetched; offset + length when all were. */
static uint64_t packbuf_i_not_fetched_at(const packbuf_view *view, uint64_t offset, uint64_t length) {
  while (length != 0) {
    uint64_t there = 0;
    if (!packbuf_i_fetched_at(view, offset, &there)) return offset;
    if (there > length) there = length;
    offset += there;
    length -= there;
  }
  return offset;
}

/* The first byte from `offset` on that was fetched; total_length when none was. */
static uint64_t packbuf_i_next_fetched(const packbuf_view *view, uint64_t offset) {
  uint64_t low = 0, high = view->fetched_count, there;
  if (packbuf_i_fetched_at(view, offset, &there)) return offset;
  while (low < high) { /* the first range that ends after the byte */
    const uint64_t middle = low + (high - low) / 2;
    if (view->fetched[middle].offset + view->fetched[middle].length <= offset) low = middle + 1;
    else high = middle;
  }
  return low < view->fetched_count ? view->fetched[low].offset : view->total_length;
}

/* Copies `length` bytes from one range after the other; 0, with nothing promised of out, when some were not fetched. */
static int packbuf_i_gather_fetched(const packbuf_view *view, uint64_t offset, size_t length, uint8_t *out) {
  while (length != 0) {
    uint64_t there = 0;
    const uint8_t *bytes = packbuf_i_fetched_at(view, offset, &there);
    if (!bytes) return 0;
    if (there > length) there = length;
    memcpy(out, bytes, (size_t)there);
    offset += there;
    out += there;
    length -= (size_t)there;
  }
  return 1;
}

/* Whether the ranges ascend, do not overlap and end within the packed buffer. */
static int packbuf_i_fetched_in_order(const packbuf_fetched *fetched, uint64_t count, uint64_t total_length) {
  uint64_t end = 0;
  for (uint64_t i = 0; i < count; i++) {
    if (fetched[i].offset < end || fetched[i].offset > total_length ||
        fetched[i].length > total_length - fetched[i].offset || (fetched[i].length && !fetched[i].bytes))
      return 0;
    end = fetched[i].offset + fetched[i].length;
  }
  return 1;
}
