/* transport/asked.c: which bytes of an object an item asks for, found and copied the same way by every store that has
 * the whole object at hand.
 * May use: base, store.h. Must not know: where objects lie, leases. */

/* What an item asks of an object. */
typedef struct packbuf_i_wanted_bytes {
  uint64_t first, size; /* bytes in all; first: where they begin when they are one run */
  int run;              /* they lie end to end */
} packbuf_i_wanted_bytes;

/* Adds up the ranges. OUT_OF_RANGE; CAPACITY: there is no room for them at item->into. */
static packbuf_status packbuf_i_item_asks(const packbuf_item *item, uint64_t length, packbuf_i_wanted_bytes *asked) {
  asked->first = 0;
  asked->size = item->ranges ? 0 : length;
  asked->run = 1;
  for (uint64_t i = 0; item->ranges && i < item->range_count; i++) {
    const packbuf_range range = item->ranges[i];
    if (range.offset > length || range.length > length - range.offset) return PACKBUF_OUT_OF_RANGE;
    if (!range.length) continue;
    if (!asked->size) asked->first = range.offset;
    else if (range.offset != asked->first + asked->size) asked->run = 0;
    if (!packbuf_i_add(asked->size, range.length, &asked->size)) return PACKBUF_OUT_OF_RANGE;
  }
  return item->into && asked->size > item->capacity ? PACKBUF_CAPACITY : PACKBUF_OK;
}

/* Copies the first `size` of the bytes that are asked, end to end; they are there. */
static void packbuf_i_item_copy(const packbuf_item *item, const uint8_t *object, uint64_t size, uint8_t *to) {
  if (!item->ranges && size) memcpy(to, object, (size_t)size);
  for (uint64_t i = 0; item->ranges && size; i++) {
    const uint64_t some = item->ranges[i].length < size ? item->ranges[i].length : size;
    if (some) memcpy(to, object + item->ranges[i].offset, (size_t)some);
    to += some;
    size -= some;
  }
}
