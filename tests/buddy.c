/* tests/buddy.c: the pages of a slab against a bitmap: a million random takes, trims and gifts in slabs of many sizes,
 * after each of which what is free, what is joined and what the longest run is are what the bitmap says; all-or-none
 * takes, and whether sets could ever be had, against the same taken in earnest.
 * May use: internals.h, tap.h. Must not know: pools. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "tap.h"

enum { MOST_PAGES = 5000, MOST_RUNS = 5000 };

static uint64_t state = 88172645463325252u;

static uint64_t below(uint64_t limit) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (state >> 11) % limit;
}

typedef struct run {
  uint64_t page, pages;
} run;

/* A slab, and what must be true of it. */
typedef struct model {
  packbuf_i_buddy buddy;
  void *tables;
  uint64_t pages, used, count;
  uint8_t taken[MOST_PAGES];
  run runs[MOST_RUNS];
} model;

static void start(model *m, uint64_t pages) {
  const uint64_t room = packbuf_i_buddy_room(pages);
  m->tables = malloc((size_t)room);
  memset(m->tables, 0xa5, (size_t)room);
  m->pages = pages;
  m->used = m->count = 0;
  memset(m->taken, 0, sizeof m->taken);
  packbuf_i_buddy_start(&m->buddy, pages, m->tables);
}

static int is_free(const model *m, uint64_t page, uint64_t pages) {
  for (uint64_t i = page; i < page + pages && i < m->pages; i++)
    if (m->taken[i]) return 0;
  return 1;
}

static int mark(model *m, uint64_t page, uint64_t pages, int taken) {
  for (uint64_t i = page; i < page + pages; i++) {
    if (i >= m->pages || m->taken[i] == taken) return 0;
    m->taken[i] = (uint8_t)taken;
  }
  m->used = taken ? m->used + pages : m->used - pages;
  return 1;
}

/* Pages of the longest block that is free: by the definition, from the bitmap alone. */
static uint64_t longest(const model *m) {
  uint64_t best = 0;
  for (uint64_t size = 1; size < 2 * m->pages; size *= 2)
    for (uint64_t page = 0; page < m->pages; page += size) {
      const uint64_t there = size < m->pages - page ? size : m->pages - page;
      if (there > best && is_free(m, page, there)) best = there;
    }
  return best;
}

/* Every free block is maximal, each free page is in one, each block is in its list: counted from the bitmap. */
static int blocks_right(const model *m) {
  uint64_t listed = 0;
  for (uint64_t page = 0; page < m->pages;) {
    uint64_t size = 1;
    if (m->taken[page]) {
      if (m->buddy.begins[page++]) return 0;
      continue;
    }
    while (size < m->pages && page % (2 * size) == 0 && is_free(m, page, 2 * size)) size *= 2;
    if (size > m->pages - page) size = m->pages - page;
    if (m->buddy.begins[page] != packbuf_i_buddy_order(size) + 1) return 0;
    for (uint64_t i = page + 1; i < page + size; i++)
      if (m->buddy.begins[i]) return 0;
    page += size;
    listed++;
  }
  for (unsigned order = 0; order < PACKBUF_I_BUDDY_ORDERS; order++) {
    uint32_t before = PACKBUF_I_BUDDY_NONE;
    if ((m->buddy.filled >> order & 1) != (m->buddy.first[order] != PACKBUF_I_BUDDY_NONE)) return 0;
    for (uint32_t at = m->buddy.first[order]; at != PACKBUF_I_BUDDY_NONE; at = m->buddy.links[at].next) {
      if (m->buddy.links[at].previous != before || m->buddy.begins[at] != order + 1 || !listed--) return 0;
      before = at;
    }
  }
  return listed == (m->buddy.rest != PACKBUF_I_BUDDY_NONE);
}

/* The smallest free block of the bitmap that holds `pages` decides whether a take must succeed. */
static int step(model *m, uint64_t most, int exact) {
  const uint64_t what = below(10);
  uint64_t page = 0;
  if (what < 5 && m->count < MOST_RUNS) {
    const uint64_t pages = 1 + below(below(2) ? most : 8);
    const int got = packbuf_i_buddy_take(&m->buddy, pages, &page);
    if (exact && got != (pages <= longest(m))) return 0;
    if (!got) return pages > packbuf_i_buddy_largest(&m->buddy);
    m->runs[m->count].page = page;
    m->runs[m->count++].pages = pages;
    return page % ((uint64_t)1 << packbuf_i_buddy_order(pages)) == 0 && mark(m, page, pages, 1);
  }
  if (!m->count) return 1;
  {
    const uint64_t i = below(m->count);
    run *one = &m->runs[i];
    if (what == 5 && one->pages > 1) {
      const uint64_t keep = 1 + below(one->pages);
      packbuf_i_buddy_give(&m->buddy, one->page + keep, one->pages - keep);
      if (!mark(m, one->page + keep, one->pages - keep, 0)) return 0;
      one->pages = keep;
      return 1;
    }
    packbuf_i_buddy_give(&m->buddy, one->page, one->pages);
    if (!mark(m, one->page, one->pages, 0)) return 0;
    *one = m->runs[--m->count];
  }
  return 1;
}

static int finish(model *m) {
  int good;
  while (m->count) {
    const run one = m->runs[--m->count];
    packbuf_i_buddy_give(&m->buddy, one.page, one.pages);
    if (!mark(m, one.page, one.pages, 0)) return 0;
  }
  good = m->buddy.used == 0 && packbuf_i_buddy_largest(&m->buddy) == m->pages && blocks_right(m);
  free(m->tables);
  return good;
}

static model one;

/* Small slabs of every size, checked in full after each operation. */
static void test_small(void) {
  uint64_t done = 0, size = 1;
  int good = 1;
  for (; size <= 70 && good; size++) {
    start(&one, size);
    good = packbuf_i_buddy_largest(&one.buddy) == size && blocks_right(&one);
    for (int i = 0; i < 2000 / TAP_STEP && good; i++, done++)
      good = step(&one, size + 1, 1) && one.buddy.used == one.used &&
             packbuf_i_buddy_largest(&one.buddy) == longest(&one) && blocks_right(&one);
    good = good && finish(&one);
  }
  tap_ok(good, "%u operations in slabs of 1 to %u pages, each checked page by page", (unsigned)done,
         (unsigned)(size - 1));
}

static void test_large(void) {
  static const uint64_t sizes[] = {4096, 4095, 4097, 3000, 2560, 1, 2049};
  uint64_t done = 0;
  int good = 1;
  for (unsigned s = 0; s < sizeof sizes / sizeof *sizes && good; s++) {
    start(&one, sizes[s]);
    for (int i = 0; i < 150000 / TAP_STEP && good; i++, done++) {
      const uint64_t most = i / 10000 % 2 ? sizes[s] / 4 + 1 : 16;
      good = step(&one, most, 0) && one.buddy.used == one.used;
      if (good && i % 1000 == 0) good = packbuf_i_buddy_largest(&one.buddy) == longest(&one) && blocks_right(&one);
    }
    good = good && finish(&one);
  }
  tap_ok(good, "%u operations in slabs of up to 4097 pages", (unsigned)done);
}

/* A slice costs its pages and no more: a slab is filled to the last page. */
static void test_tails(void) {
  uint64_t page, first = 0;
  int good = 1;
  start(&one, 12);
  good = packbuf_i_buddy_take(&one.buddy, 5, &first) && first == 0 && packbuf_i_buddy_largest(&one.buddy) == 4;
  good = good && packbuf_i_buddy_take(&one.buddy, 3, &page) && packbuf_i_buddy_take(&one.buddy, 1, &page) &&
         packbuf_i_buddy_take(&one.buddy, 2, &page) && packbuf_i_buddy_take(&one.buddy, 1, &page);
  tap_ok(good && one.buddy.used == 12 && !packbuf_i_buddy_largest(&one.buddy) &&
             !packbuf_i_buddy_take(&one.buddy, 1, &page),
         "runs of 5, 3, 1, 2 and 1 pages fill a slab of 12");
  free(one.tables);
  start(&one, 12);
  tap_ok(!packbuf_i_buddy_take(&one.buddy, 13, &page) && !packbuf_i_buddy_take(&one.buddy, 0, &page) &&
             packbuf_i_buddy_take(&one.buddy, 12, &page) && page == 0,
         "a slab of 12 pages has one of 12, none of 13 and none of 0");
  free(one.tables);
  start(&one, 64);
  good = packbuf_i_buddy_take(&one.buddy, 4, &first) && packbuf_i_buddy_take(&one.buddy, 4, &page);
  packbuf_i_buddy_give(&one.buddy, first, 4);
  good = good && packbuf_i_buddy_take(&one.buddy, 4, &page) && page == first;
  tap_ok(good, "the block that was given back last is the first to go");
  free(one.tables);
}

/* Random sets: what could be had is what an empty slab gives; what fails leaves everything as it was. */
static void test_sets(void) {
  uint64_t sizes[40];
  struct {
    uint64_t other, page;
  } runs[40];
  unsigned could = 0, sets = 0;
  int good = 1;
  for (; sets < 40000 / TAP_STEP && good; sets++) {
    const uint64_t pages = 1 + below(sets % 2 ? 80 : 600), count = 1 + below(12), share = 1 + below(count);
    uint64_t sum = 0;
    int got;
    start(&one, pages);
    for (unsigned i = 0; i < count; i++) {
      sizes[i] = 1 + below(4096 * (pages / share + (share > pages)));
      sum += packbuf_i_buddy_pages(sizes[i]);
    }
    got = packbuf_i_buddy_take_all(&one.buddy, sizes, count, &runs[0].page, sizeof *runs);
    good = got == packbuf_i_buddy_could(pages, sizes, count) && one.buddy.used == (got ? sum : 0);
    if ((pages & (pages - 1)) == 0 && 2 * sum <= pages) good = good && got;
    for (unsigned i = 0; i < count && got && good; i++) {
      good = mark(&one, runs[i].page, packbuf_i_buddy_pages(sizes[i]), 1);
      one.runs[one.count].page = runs[i].page;
      one.runs[one.count++].pages = packbuf_i_buddy_pages(sizes[i]);
    }
    could += got != 0;
    good = good && blocks_right(&one) && finish(&one);
  }
  tap_ok(good && could > sets / 10 && could < sets - sets / 10,
         "%u sets of sizes, of which %u could be had, all or none", sets, could);
}

int main(void) {
  test_small();
  test_large();
  test_tails();
  test_sets();
  return tap_plan_done();
}
