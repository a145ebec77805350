/* core/sort.c: the one sort. It merges: n log n whatever the order, which a stranger may have chosen; no recursion;
 * equal things keep their order.
 * May use: base. Must not know: what is sorted. */

/* Below 0, 0 or above: thing `a` comes before `b`, is equal to it, or comes after it. */
typedef int (*packbuf_i_order)(const void *context, const void *a, const void *b);

/* Sorts `count` things of `size` bytes at `list`; `spare` has room for as many. Returns the one of the two that holds
 * them sorted. */
static void *packbuf_i_sort(void *list, void *spare, uint64_t count, size_t size, packbuf_i_order order,
                            const void *context) {
  uint8_t *from = (uint8_t *)list, *to = (uint8_t *)spare;
  for (uint64_t width = 1; width < count; width *= 2) {
    uint8_t *swap = from;
    for (uint64_t begin = 0; begin < count; begin += 2 * width) {
      const uint64_t middle = begin + width < count ? begin + width : count,
                     end = middle + width < count ? middle + width : count;
      uint64_t a = begin, b = middle;
      for (uint64_t at = begin; at < end; at++) {
        const int left = a < middle && (b >= end || order(context, from + a * size, from + b * size) <= 0);
        memcpy(to + at * size, from + (left ? a++ : b++) * size, size);
      }
    }
    from = to;
    to = swap;
  }
  return from;
}
