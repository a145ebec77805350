/* transport/buddy.c: a binary buddy over the pages of one slab: takes runs of any number of pages, trims them, takes
 * them back and joins what is free. A block of 2^order pages begins at a multiple of its size; the one that would reach
 * past the slab's end has the pages that are there, so that a slab need not be a power of two. A run takes the smallest
 * block that holds it, and what it leaves over of that is free again at once. Time: the number of orders. No locks.
 * May use: base. Must not know: what lies in the pages, who waits for them. */

#define PACKBUF_I_PAGE ((uint64_t)4096)
#define PACKBUF_I_BUDDY_ORDERS 29u /* blocks of up to 2^28 pages: 1 TiB */
#define PACKBUF_I_BUDDY_MOST ((uint64_t)1 << (PACKBUF_I_BUDDY_ORDERS - 1))
#define PACKBUF_I_BUDDY_NONE UINT32_MAX

/* The neighbours of a free block in the list of its order. */
typedef struct packbuf_i_buddy_link {
  uint32_t next, previous;
} packbuf_i_buddy_link;

typedef struct packbuf_i_buddy {
  uint64_t pages, used;
  packbuf_i_buddy_link *links;            /* of the first page of each free block */
  uint8_t *begins;                        /* for each page: 1 + order of the free block that begins there, else 0 */
  uint32_t first[PACKBUF_I_BUDDY_ORDERS]; /* free blocks of each order, the one freed last in front: it is warm */
  uint32_t filled;                        /* a bit for each order that has some */
  uint32_t rest;                          /* the free block that the slab's end cuts off, which is in no list */
} packbuf_i_buddy;

/* Bytes of tables for a slab of `pages` (9 a page, 0.22 % of the slab); pages 1 to PACKBUF_I_BUDDY_MOST. */
static uint64_t packbuf_i_buddy_room(uint64_t pages) { return pages * (sizeof(packbuf_i_buddy_link) + 1); }

/* Pages that `size` bytes take. */
static uint64_t packbuf_i_buddy_pages(uint64_t size) { return size / PACKBUF_I_PAGE + (size % PACKBUF_I_PAGE != 0); }

/* The order of the smallest block that holds `pages`, 1 or more. */
static unsigned packbuf_i_buddy_order(uint64_t pages) { return packbuf_i_bits_of(pages - 1); }

/* How many of a block's pages are there. */
static uint64_t packbuf_i_buddy_length(uint64_t slab, uint64_t page, unsigned order) {
  const uint64_t whole = (uint64_t)1 << order;
  return whole < slab - page ? whole : slab - page;
}

/* The order of the first block of a free run, when it is cut into as few blocks as can be. */
static unsigned packbuf_i_buddy_cut(uint64_t slab, uint64_t page, uint64_t pages) {
  const unsigned aligned = page ? packbuf_i_first_set(page) : PACKBUF_I_BUDDY_ORDERS;
  const unsigned fits = page + pages == slab ? packbuf_i_buddy_order(pages) : packbuf_i_bits_of(pages) - 1;
  return aligned < fits ? aligned : fits;
}

static void packbuf_i_buddy_link_in(packbuf_i_buddy *buddy, uint64_t page, unsigned order) {
  packbuf_i_buddy_link *link = &buddy->links[page];
  buddy->begins[page] = (uint8_t)(order + 1);
  if (page + ((uint64_t)1 << order) > buddy->pages) {
    buddy->rest = (uint32_t)page;
    return;
  }
  link->previous = PACKBUF_I_BUDDY_NONE;
  link->next = buddy->first[order];
  if (link->next != PACKBUF_I_BUDDY_NONE) buddy->links[link->next].previous = (uint32_t)page;
  buddy->first[order] = (uint32_t)page;
  buddy->filled |= (uint32_t)1 << order;
}

static void packbuf_i_buddy_link_out(packbuf_i_buddy *buddy, uint64_t page) {
  const packbuf_i_buddy_link *link = &buddy->links[page];
  const unsigned order = buddy->begins[page] - 1u;
  buddy->begins[page] = 0;
  if (buddy->rest == page) {
    buddy->rest = PACKBUF_I_BUDDY_NONE;
    return;
  }
  if (link->next != PACKBUF_I_BUDDY_NONE) buddy->links[link->next].previous = link->previous;
  if (link->previous != PACKBUF_I_BUDDY_NONE) buddy->links[link->previous].next = link->next;
  else buddy->first[order] = link->next;
  if (buddy->first[order] == PACKBUF_I_BUDDY_NONE) buddy->filled &= ~((uint32_t)1 << order);
}

/* Frees a block and joins it with its neighbour as often as that is free. A neighbour past the end counts as free. */
static void packbuf_i_buddy_free(packbuf_i_buddy *buddy, uint64_t page, unsigned order) {
  const unsigned top = packbuf_i_buddy_order(buddy->pages);
  for (; order < top; order++) {
    const uint64_t other = page ^ (uint64_t)1 << order;
    if (other < buddy->pages) {
      const uint64_t length = packbuf_i_buddy_length(buddy->pages, other, order);
      if (buddy->begins[other] != packbuf_i_buddy_order(length) + 1) break;
      packbuf_i_buddy_link_out(buddy, other);
    }
    page &= ~((uint64_t)1 << order);
  }
  order = packbuf_i_buddy_order(packbuf_i_buddy_length(buddy->pages, page, order));
  packbuf_i_buddy_link_in(buddy, page, order);
}

/* Gives back a run, or any part of one. */
static void packbuf_i_buddy_give(packbuf_i_buddy *buddy, uint64_t page, uint64_t pages) {
  buddy->used -= pages;
  while (pages) {
    const unsigned order = packbuf_i_buddy_cut(buddy->pages, page, pages);
    const uint64_t length = packbuf_i_buddy_length(buddy->pages, page, order);
    packbuf_i_buddy_free(buddy, page, order);
    page += length;
    pages -= length;
  }
}

/* The free block to take `pages` of; PACKBUF_I_BUDDY_NONE. */
static uint32_t packbuf_i_buddy_find(const packbuf_i_buddy *buddy, uint64_t pages) {
  const unsigned least = packbuf_i_buddy_order(pages);
  const uint32_t orders = buddy->filled >> least << least;
  const unsigned order = orders ? packbuf_i_first_set(orders) : PACKBUF_I_BUDDY_ORDERS;
  if (buddy->rest != PACKBUF_I_BUDDY_NONE && buddy->pages - buddy->rest >= pages &&
      buddy->begins[buddy->rest] <= order + 1)
    return buddy->rest;
  return orders ? buddy->first[order] : PACKBUF_I_BUDDY_NONE;
}

/* Takes a run of `pages`. 0: there is none (of 0 pages neither). */
static int packbuf_i_buddy_take(packbuf_i_buddy *buddy, uint64_t pages, uint64_t *page) {
  uint64_t at, end;
  if (!pages || pages > buddy->pages) return 0;
  at = packbuf_i_buddy_find(buddy, pages);
  if (at == PACKBUF_I_BUDDY_NONE) return 0;
  end = at + packbuf_i_buddy_length(buddy->pages, at, buddy->begins[at] - 1u);
  packbuf_i_buddy_link_out(buddy, at);
  buddy->used += pages;
  *page = at;
  at += pages;
  while (at < end) { /* what is left over has nothing to join: the neighbours of its blocks have pages of the run */
    const unsigned order = packbuf_i_buddy_cut(buddy->pages, at, end - at);
    packbuf_i_buddy_link_in(buddy, at, order);
    at += packbuf_i_buddy_length(buddy->pages, at, order);
  }
  return 1;
}

/* The longest run that could be taken now. */
static uint64_t packbuf_i_buddy_largest(const packbuf_i_buddy *buddy) {
  const uint64_t listed = buddy->filled ? (uint64_t)1 << (packbuf_i_bits_of(buddy->filled) - 1) : 0;
  const uint64_t rest = buddy->rest == PACKBUF_I_BUDDY_NONE ? 0 : buddy->pages - buddy->rest;
  return listed > rest ? listed : rest;
}

/* Starts with all pages free. tables: packbuf_i_buddy_room(pages) bytes, aligned to 4, with anything in them. */
static void packbuf_i_buddy_start(packbuf_i_buddy *buddy, uint64_t pages, void *tables) {
  buddy->pages = buddy->used = pages;
  buddy->links = (packbuf_i_buddy_link *)tables;
  buddy->begins = (uint8_t *)(buddy->links + pages);
  buddy->filled = 0;
  buddy->rest = PACKBUF_I_BUDDY_NONE;
  for (unsigned order = 0; order < PACKBUF_I_BUDDY_ORDERS; order++) buddy->first[order] = PACKBUF_I_BUDDY_NONE;
  memset(buddy->begins, 0, (size_t)pages);
  packbuf_i_buddy_give(buddy, 0, pages);
}

/* ---- many at a time ---- */

/* The orders of runs of these sizes, a bit each. */
static uint32_t packbuf_i_buddy_orders(const uint64_t *sizes, uint64_t count) {
  uint32_t orders = 0;
  for (uint64_t i = 0; i < count; i++) orders |= (uint32_t)1 << packbuf_i_buddy_order(packbuf_i_buddy_pages(sizes[i]));
  return orders;
}

/* Takes runs for the sizes of one order. Returns how far it came: `count`, or the first size without a run. */
static uint64_t packbuf_i_buddy_take_order(packbuf_i_buddy *buddy, const uint64_t *sizes, uint64_t count,
                                           unsigned order, uint8_t *runs, size_t stride) {
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t pages = packbuf_i_buddy_pages(sizes[i]);
    uint64_t page;
    if (packbuf_i_buddy_order(pages) != order) continue;
    if (!packbuf_i_buddy_take(buddy, pages, &page)) return i;
    memcpy(runs + (size_t)i * stride, &page, sizeof page);
  }
  return count;
}

/* Gives back the runs of those of the sizes whose orders are among these. */
static void packbuf_i_buddy_give_orders(packbuf_i_buddy *buddy, const uint64_t *sizes, uint64_t count, uint32_t orders,
                                        const uint8_t *runs, size_t stride) {
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t pages = packbuf_i_buddy_pages(sizes[i]);
    uint64_t page;
    if (!(orders >> packbuf_i_buddy_order(pages) & 1)) continue;
    memcpy(&page, runs + (size_t)i * stride, sizeof page);
    packbuf_i_buddy_give(buddy, page, pages);
  }
}

/* Runs for `count` sizes in bytes (each 1 or more, and not more than the slab), all or none: 0. The first page of run i
 * is stored at runs + i * stride, a uint64_t. Runs of the largest order are taken first, as small ones find room in the
 * tails of large ones and not the other way round. */
static int packbuf_i_buddy_take_all(packbuf_i_buddy *buddy, const uint64_t *sizes, uint64_t count, void *runs,
                                    size_t stride) {
  const uint32_t orders = packbuf_i_buddy_orders(sizes, count);
  uint8_t *to = (uint8_t *)runs;
  for (unsigned order = PACKBUF_I_BUDDY_ORDERS; order-- != 0;) {
    uint64_t got;
    if (!(orders >> order & 1)) continue;
    got = packbuf_i_buddy_take_order(buddy, sizes, count, order, to, stride);
    if (got == count) continue;
    packbuf_i_buddy_give_orders(buddy, sizes, got, (uint32_t)1 << order, to, stride);
    packbuf_i_buddy_give_orders(buddy, sizes, count, orders >> (order + 1) << (order + 1), to, stride);
    return 0;
  }
  return 1;
}

/* How many free blocks there are of each order, and where the one begins that the slab's end cuts off. */
typedef struct packbuf_i_buddy_counts {
  uint64_t pages, rest, of[PACKBUF_I_BUDDY_ORDERS];
} packbuf_i_buddy_counts;

/* Counts a free run from `page` to `end`, in a slab that ends at `slab`. */
static void packbuf_i_buddy_count(packbuf_i_buddy_counts *counts, uint64_t slab, uint64_t page, uint64_t end) {
  while (page < end) {
    const unsigned order = packbuf_i_buddy_cut(slab, page, end - page);
    if (page + ((uint64_t)1 << order) > end) counts->rest = page;
    else counts->of[order]++;
    page += packbuf_i_buddy_length(slab, page, order);
  }
}

/* As packbuf_i_buddy_take, in counts alone. */
static int packbuf_i_buddy_count_out(packbuf_i_buddy_counts *counts, uint64_t pages) {
  const unsigned least = packbuf_i_buddy_order(pages);
  const uint64_t slab = counts->pages, rest = counts->rest;
  unsigned order = least;
  while (order < PACKBUF_I_BUDDY_ORDERS && !counts->of[order]) order++;
  if (rest < slab && slab - rest >= pages && packbuf_i_buddy_order(slab - rest) <= order) {
    counts->rest = slab;
    packbuf_i_buddy_count(counts, slab, rest + pages, slab);
    return 1;
  }
  if (order == PACKBUF_I_BUDDY_ORDERS) return 0;
  counts->of[order]--;
  packbuf_i_buddy_count(counts, UINT64_MAX, pages, (uint64_t)1 << order);
  return 1;
}

/* Whether packbuf_i_buddy_take_all would succeed with all of a slab free. Sizes that take half of its pages, or less,
 * always do where the slab is a power of two. */
static int packbuf_i_buddy_could(uint64_t slab, const uint64_t *sizes, uint64_t count) {
  const uint32_t orders = packbuf_i_buddy_orders(sizes, count);
  packbuf_i_buddy_counts counts;
  memset(&counts, 0, sizeof counts);
  counts.pages = counts.rest = slab;
  packbuf_i_buddy_count(&counts, slab, 0, slab);
  for (unsigned order = PACKBUF_I_BUDDY_ORDERS; order-- != 0;) {
    if (!(orders >> order & 1)) continue;
    for (uint64_t i = 0; i < count; i++) {
      const uint64_t size = packbuf_i_buddy_pages(sizes[i]);
      if (packbuf_i_buddy_order(size) == order && !packbuf_i_buddy_count_out(&counts, size)) return 0;
    }
  }
  return 1;
}
