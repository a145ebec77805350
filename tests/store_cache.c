/* tests/store_cache.c: the registration cache against a driver that keeps books. What is registered when, as one or
 * apart; what operations hold and who waits for them; memory that was mapped anew; failures in the middle; random calls
 * against a table of bytes; many threads. Also built with ThreadSanitizer.
 * May use: internals.h, failing.h, tap.h. Must not know: stores. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "failing.h"
#include "tap.h"

enum { PAGE = 4096, PAGES = 64 };

static packbuf_error error;
static char *memory; /* PAGES pages */
static uint64_t hit; /* registrations that a call makes whose range is registered: 0 where marks can be seen */

/* ---- a driver ---- */

typedef struct handle {
  uint64_t start, end;
  uint32_t alive, users;
} handle;

typedef struct books {
  handle handles[20000];
  uint32_t count, alive, wrong, failing;
  uint64_t bytes;
  packbuf_i_lock lock;
} books;

static books book;

static packbuf_status attach(void *state, const void *address, uint64_t size, void **registration, packbuf_error *out) {
  books *all = (books *)state;
  handle *one = &all->handles[PACKBUF_I_ADD(&all->count, 1u)];
  if (all->failing) return packbuf_i_system_fail(out, "as planned", 12);
  one->start = (uint64_t)(uintptr_t)address;
  one->end = one->start + size;
  PACKBUF_I_STORE(&one->alive, 1u);
  (void)PACKBUF_I_ADD(&all->alive, 1u);
  (void)PACKBUF_I_ADD(&all->bytes, size);
  *registration = one;
  return PACKBUF_OK;
}

static void detach(void *state, void *registration) {
  books *all = (books *)state;
  handle *one = (handle *)registration;
  if (PACKBUF_I_SWAP(&one->alive, 0u) != 1 || PACKBUF_I_LOAD(&one->users)) (void)PACKBUF_I_ADD(&all->wrong, 1u);
  (void)PACKBUF_I_SUBTRACT(&all->alive, 1u);
  (void)PACKBUF_I_SUBTRACT(&all->bytes, one->end - one->start);
}

/* ---- short for calls ---- */

static void start(packbuf_i_cache *cache) {
  memset(&book, 0, sizeof book);
  (void)packbuf_i_cache_start(cache, attach, detach, &book, NULL);
}

static int clean_end(packbuf_i_cache *cache) {
  packbuf_i_cache_end(cache);
  return !book.alive && !book.bytes && !book.wrong;
}

static packbuf_status add(packbuf_i_cache *cache, int page, int pages) {
  return packbuf_i_cache_register(cache, memory + page * PAGE, (uint64_t)pages * PAGE, &error);
}

static packbuf_status leave(packbuf_i_cache *cache, int page, int pages) {
  return packbuf_i_cache_unregister(cache, memory + page * PAGE, (uint64_t)pages * PAGE, &error);
}

/* Whether an operation may use these pages, and one registration has all of them. */
static int usable(packbuf_i_cache *cache, int page, int pages) {
  packbuf_i_registration *one = NULL;
  const uint64_t from = (uint64_t)(uintptr_t)(memory + page * PAGE), size = (uint64_t)pages * PAGE;
  int good;
  if (packbuf_i_cache_hold(cache, memory + page * PAGE, size, 0, &one, &error)) return 0;
  good = ((handle *)one->handle)->alive && ((handle *)one->handle)->start <= from &&
         ((handle *)one->handle)->end >= from + size;
  packbuf_i_cache_drop(cache, one);
  return good;
}

/* Registrations made so far, and pages that are registered now. */
static int stands(packbuf_i_cache *cache, uint64_t made, uint64_t pages) {
  uint64_t registrations, registered;
  packbuf_i_cache_counts(cache, &registrations, &registered);
  if (registrations == made && registered == pages * PAGE && registered == book.bytes) return 1;
  tap_note("%u registrations, %u pages", (unsigned)registrations, (unsigned)(registered / PAGE));
  return 0;
}

/* ---- as one ---- */

static void test_joining(void) {
  packbuf_i_cache cache;
  start(&cache);
  tap_ok(!add(&cache, 10, 2) && stands(&cache, 1, 2), "a range");
  tap_ok(!add(&cache, 10, 2) && stands(&cache, 1 + hit, 2), "twice: registered once");
  tap_ok(!add(&cache, 12, 2) && stands(&cache, 2 + hit, 4) && usable(&cache, 11, 2), "adjacent: as one with it");
  tap_ok(!add(&cache, 13, 3) && stands(&cache, 3 + hit, 6) && book.alive == 1, "overlapping: as one with both");
  tap_ok(!add(&cache, 11, 3) && stands(&cache, 3 + 2 * hit, 6), "contained: nothing new");
  tap_ok(!add(&cache, 8, 2) && !add(&cache, 20, 2) && stands(&cache, 5 + 2 * hit, 10) && book.alive == 2,
         "before; apart");
  tap_ok(!add(&cache, 16, 4) && stands(&cache, 6 + 2 * hit, 14) && book.alive == 1 && usable(&cache, 8, 14),
         "between: all are one");
  tap_ok(!usable(&cache, 7, 2) && !usable(&cache, 21, 2) && !usable(&cache, 22, 1), "and no byte more");
  tap_ok(!leave(&cache, 10, 2) && usable(&cache, 8, 14), "one of two equal ones left: still there");
  tap_ok(!leave(&cache, 16, 4) && usable(&cache, 8, 8) && usable(&cache, 20, 2) && !usable(&cache, 15, 2) &&
             !usable(&cache, 16, 1) && stands(&cache, 6 + 2 * hit, 14),
         "what left is not usable, the others are, without being registered anew");
  tap_ok(!leave(&cache, 8, 2) && !leave(&cache, 13, 3) && !leave(&cache, 12, 2) && usable(&cache, 10, 4) &&
             !usable(&cache, 14, 1) && !usable(&cache, 9, 1),
         "a contained range keeps its bytes when those around it left");
  tap_ok(!leave(&cache, 11, 3) && !leave(&cache, 10, 2) && !usable(&cache, 10, 1) && usable(&cache, 20, 2),
         "in any order");
  tap_ok(leave(&cache, 10, 2) == PACKBUF_NOT_FOUND && error.offset == (uint64_t)(uintptr_t)(memory + 10 * PAGE),
         "one too many: NOT_FOUND, and the address");
  tap_ok(leave(&cache, 20, 1) == PACKBUF_NOT_FOUND && leave(&cache, 19, 3) == PACKBUF_NOT_FOUND,
         "other numbers: NOT_FOUND");
  tap_ok(!leave(&cache, 20, 2) && stands(&cache, 6 + 2 * hit, 0) && !book.alive,
         "the last one: nothing stays registered");
  tap_ok(clean_end(&cache), "ended");
}

/* What left is never registered again by what its old neighbours do: it may be unmapped by now. */
static void test_left_out(void) {
  packbuf_i_cache cache;
  start(&cache);
  (void)add(&cache, 0, 4), (void)add(&cache, 4, 4), (void)add(&cache, 8, 4);
  tap_ok(stands(&cache, 3, 12) && !leave(&cache, 4, 4) && stands(&cache, 3, 12), "the middle one of three left");
  tap_ok(!add(&cache, 12, 4) && stands(&cache, 4, 12 + 8) && book.alive == 2,
         "one joins the last: they are registered");
  tap_ok(usable(&cache, 0, 4) && usable(&cache, 8, 8) && !usable(&cache, 4, 1), "the first is as it was");
  tap_ok(!add(&cache, 2, 1) && stands(&cache, 4 + hit, hit ? 12 : 20), "and still found");
  tap_ok(!leave(&cache, 0, 4) && usable(&cache, 2, 1) && !usable(&cache, 1, 1),
         "what it contained stays when it leaves");
  tap_ok(!leave(&cache, 2, 1) && stands(&cache, 4 + hit, 8) && book.alive == 1, "then the old registration ends");
  tap_ok(!leave(&cache, 12, 4) && !leave(&cache, 8, 4) && clean_end(&cache), "ended");
}

static void test_bytes(void) {
  packbuf_i_cache cache;
  packbuf_i_registration *one = NULL;
  uint64_t made, bytes;
  start(&cache);
  tap_ok(!packbuf_i_cache_register(&cache, memory + 100, 10, &error) &&
             !packbuf_i_cache_register(&cache, memory + 111, 10, &error) && book.alive == 2,
         "a byte between two ranges: apart");
  tap_ok(!packbuf_i_cache_register(&cache, memory + 110, 1, &error) && book.alive == 1 && book.bytes == 21,
         "the byte joins them");
  tap_ok(!packbuf_i_cache_hold(&cache, memory + 100, 21, 0, &one, &error), "ranges are of bytes, not pages");
  packbuf_i_cache_drop(&cache, one);
  tap_ok(packbuf_i_cache_hold(&cache, memory + 99, 2, 0, &one, &error) == PACKBUF_UNREGISTERED && !one,
         "no byte before");
  tap_ok(packbuf_i_cache_register(&cache, NULL, 5, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_i_cache_register(&cache, memory, 0, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_i_cache_register(&cache, memory, UINT64_MAX, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_i_cache_unregister(&cache, memory, 0, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_i_cache_hold(&cache, memory, UINT64_MAX - 5, 1, &one, &error) == PACKBUF_INVALID_ARGUMENT,
         "no memory, no bytes, past the end of memory");
  tap_ok(!packbuf_i_cache_hold(&cache, NULL, 0, 0, &one, &error) && !one, "an operation of no bytes holds nothing");
  packbuf_i_cache_drop(&cache, one);
  tap_ok(clean_end(&cache), "ended with ranges on the books: none stays registered");
  (void)packbuf_i_cache_start(&cache, NULL, NULL, NULL, NULL);
  (void)add(&cache, 0, 2), (void)add(&cache, 2, 2), (void)add(&cache, 1, 2);
  packbuf_i_cache_counts(&cache, &made, &bytes);
  tap_ok(made == 2 + hit && bytes == 4 * PAGE, "without a driver's own half: counted all the same");
  tap_ok(packbuf_i_cache_hold(&cache, memory + 3 * PAGE, 2 * PAGE, 0, &one, &error) == PACKBUF_UNREGISTERED &&
             !packbuf_i_cache_hold(&cache, memory + 3 * PAGE, 2 * PAGE, 1, &one, &error),
         "and unregistered memory is told");
  packbuf_i_cache_counts(&cache, &made, &bytes);
  packbuf_i_cache_drop(&cache, one);
  tap_ok(made == 3 + hit && bytes == 6 * PAGE, "registered for the call");
  packbuf_i_cache_end(&cache);
}

/* ---- operations ---- */

static void test_automatic(void) {
  packbuf_i_cache cache;
  packbuf_i_registration *one = NULL, *two = NULL;
  start(&cache);
  tap_ok(packbuf_i_cache_hold(&cache, memory + 77, PAGE, 0, &one, &error) == PACKBUF_UNREGISTERED && !one &&
             error.offset == (uint64_t)(uintptr_t)(memory + 77) && stands(&cache, 0, 0),
         "not registered: the error names the address, nothing happened");
  tap_ok(!packbuf_i_cache_hold(&cache, memory, PAGE, 1, &one, &error) && one && stands(&cache, 1, 1),
         "registered for the call");
  tap_ok(!packbuf_i_cache_hold(&cache, memory, PAGE, 1, &two, &error) && two != one && stands(&cache, 2, 2),
         "for each");
  tap_ok(!usable(&cache, 0, 1), "and for no other");
  packbuf_i_cache_drop(&cache, one);
  tap_ok(stands(&cache, 2, 1), "until it ends");
  tap_ok(!add(&cache, 0, 1) && usable(&cache, 0, 1) && stands(&cache, 3, 2), "registered meanwhile");
  packbuf_i_cache_drop(&cache, two);
  tap_ok(!packbuf_i_cache_hold(&cache, memory, PAGE, 1, &one, &error) && stands(&cache, 3, 1), "a hit costs nothing");
  packbuf_i_cache_drop(&cache, one);
  tap_ok(clean_end(&cache), "ended");
}

typedef struct leaver {
  packbuf_i_cache *cache;
  int page, pages;
  uint32_t done;
} leaver;

static void *leave_in_time(void *argument) {
  leaver *one = (leaver *)argument;
  (void)packbuf_i_cache_unregister(one->cache, memory + one->page * PAGE, (uint64_t)one->pages * PAGE, NULL);
  PACKBUF_I_STORE(&one->done, 1u);
  return NULL;
}

static int waits_on(leaver *one) {
  packbuf_i_sleep_until(packbuf_now() + 20 * 1000000u);
  return !PACKBUF_I_LOAD(&one->done);
}

static void test_holding(void) {
  packbuf_i_cache cache;
  packbuf_i_registration *one = NULL, *two = NULL;
  pthread_t thread;
  leaver left;
  start(&cache);
  (void)add(&cache, 0, 2);
  (void)packbuf_i_cache_hold(&cache, memory, PAGE, 0, &one, &error);
  tap_ok(!add(&cache, 2, 2) && stands(&cache, 2, 6) && book.alive == 2,
         "joined while an operation runs: the old one stays");
  (void)packbuf_i_cache_hold(&cache, memory, PAGE, 0, &two, &error);
  tap_ok(one != two && ((handle *)two->handle)->end - ((handle *)two->handle)->start == 4 * PAGE,
         "new operations use the new one");
  packbuf_i_cache_drop(&cache, one);
  tap_ok(stands(&cache, 2, 4) && book.alive == 1, "the old one goes when its operation ends");
  (void)leave(&cache, 2, 2);
  tap_ok(stands(&cache, 2, 4), "what others need does not wait");
  left.cache = &cache, left.page = 0, left.pages = 2, left.done = 0;
  (void)pthread_create(&thread, NULL, leave_in_time, &left);
  tap_ok(waits_on(&left) && book.alive == 1, "the last one to leave waits for the operation");
  tap_ok(!usable(&cache, 0, 1), "which is the last to find it");
  tap_ok(!add(&cache, 0, 1) && usable(&cache, 0, 1) && stands(&cache, 3, 5), "registered again meanwhile: anew");
  packbuf_i_cache_drop(&cache, two);
  (void)pthread_join(thread, NULL);
  tap_ok(stands(&cache, 3, 1) && book.alive == 1, "it ends with the operation");
  /* a registration that was replaced, still held, is waited for as well */
  (void)packbuf_i_cache_hold(&cache, memory, PAGE, 0, &one, &error);
  (void)add(&cache, 1, 1);
  (void)leave(&cache, 1, 1);
  left.pages = 1, left.done = 0;
  (void)pthread_create(&thread, NULL, leave_in_time, &left);
  tap_ok(waits_on(&left), "so is one that was replaced before");
  packbuf_i_cache_drop(&cache, one);
  (void)pthread_join(thread, NULL);
  tap_ok(stands(&cache, 4, 0) && clean_end(&cache), "ended");
}

/* ---- memory mapped anew ---- */

static void test_remapped(void) {
  packbuf_i_cache cache;
  packbuf_i_registration *held = NULL;
  void *again;
  if (hit) {
    tap_skip("marks of memory cannot be seen here");
    return;
  }
  start(&cache);
  (void)add(&cache, 40, 4), (void)add(&cache, 44, 4);
  (void)packbuf_i_cache_hold(&cache, memory + 40 * PAGE, PAGE, 0, &held, &error);
  tap_ok(!add(&cache, 40, 4) && stands(&cache, 2, 8 + 4 * 0), "the mark is there: a hit");
  (void)munmap(memory + 44 * PAGE, 4 * PAGE);
  again = mmap(memory + 44 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  tap_ok(again == memory + 44 * PAGE && !add(&cache, 45, 1) && stands(&cache, 3, 16),
         "unmapped and mapped again without a word: registered anew");
  tap_ok(held->handle != NULL && ((handle *)held->handle)->alive, "an operation keeps what it has");
  packbuf_i_cache_drop(&cache, held);
  tap_ok(stands(&cache, 3, 8) && usable(&cache, 40, 8), "the old one is gone, all is usable");
  tap_ok(!add(&cache, 45, 1) && stands(&cache, 3, 8) && !add(&cache, 40, 8) && stands(&cache, 3, 8),
         "marked again: hits");
  again = mmap(memory + 44 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  tap_ok(!add(&cache, 40, 4) && stands(&cache, 3, 8), "a look is taken at what is asked for");
  tap_ok(!leave(&cache, 44, 4) && !add(&cache, 44, 4) && stands(&cache, 4, 8), "and at that");
  (void)munmap(memory + 46 * PAGE, PAGE);
  tap_ok(
      !packbuf_i_memory_marked((uint64_t)(uintptr_t)(memory + 44 * PAGE), (uint64_t)(uintptr_t)(memory + 48 * PAGE)) &&
          packbuf_i_memory_marked((uint64_t)(uintptr_t)(memory + 44 * PAGE + 7),
                                  (uint64_t)(uintptr_t)(memory + 46 * PAGE)) &&
          packbuf_i_memory_marked((uint64_t)(uintptr_t)(memory + 48 * PAGE - 1),
                                  (uint64_t)(uintptr_t)(memory + 48 * PAGE)),
      "a hole has no mark, what is around it has");
  again = mmap(memory + 46 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  tap_ok(again != MAP_FAILED && clean_end(&cache), "ended");
}

/* ---- failures ---- */

static void test_failures(void) {
  packbuf_i_cache cache;
  packbuf_i_registration *one = NULL;
  packbuf_allocator allocator;
  failing f;
  unsigned long i = 0;
  int good = 1;
  start(&cache);
  (void)add(&cache, 0, 2);
  book.failing = 1;
  tap_ok(add(&cache, 2, 2) == PACKBUF_SYSTEM && error.offset == 12 && stands(&cache, 1, 2) && usable(&cache, 0, 2) &&
             !usable(&cache, 2, 1) && leave(&cache, 2, 2) == PACKBUF_NOT_FOUND,
         "a registration that fails changes nothing");
  tap_ok(packbuf_i_cache_hold(&cache, memory + 9 * PAGE, 1, 1, &one, &error) == PACKBUF_SYSTEM && !one &&
             stands(&cache, 1, 2),
         "nor one for a call");
  book.failing = 0;
  tap_ok(clean_end(&cache), "ended");
  for (;; i++) {
    packbuf_status status = PACKBUF_OK;
    memset(&book, 0, sizeof book);
    f = failing_at(i, 1);
    allocator = failing_allocator(&f);
    (void)packbuf_i_cache_start(&cache, attach, detach, &book, &allocator);
    for (int k = 0; k < 20 && !status; k++) status = add(&cache, 2 * k, 1);
    if (!status) status = packbuf_i_cache_hold(&cache, memory + PAGE, 10, 1, &one, &error);
    if (!status) packbuf_i_cache_drop(&cache, one);
    good = good && (!status || status == PACKBUF_OUT_OF_MEMORY) && clean_end(&cache);
    if (!status) break;
  }
  tap_ok(good && i > 20, "each of %u allocations fails: OUT_OF_MEMORY, and nothing is left", (unsigned)i);
}

/* ---- random calls ---- */

static uint64_t state = 88172645463325252u;

static int below(int limit) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (int)((state >> 11) % (uint64_t)limit);
}

enum { CELLS = 40, RANGES = 60, HOLDS = 6 };

typedef struct pair {
  int page, pages;
} pair;

static int covered(const pair *ranges, int count, int page, int pages) {
  for (int p = page; p < page + pages; p++) {
    int there = 0;
    for (int i = 0; i < count; i++) there = there || (ranges[i].page <= p && p < ranges[i].page + ranges[i].pages);
    if (!there) return 0;
  }
  return 1;
}

/* Every registration that lives is needed: it has a byte of a range that is there, or an operation holds one. */
static int all_needed(const pair *ranges, int count) {
  uint64_t needed = 0;
  for (uint32_t h = 0; h < book.count; h++) {
    const handle *one = &book.handles[h];
    const int page = (int)((one->start - (uint64_t)(uintptr_t)memory) / PAGE),
              end = page + (int)((one->end - one->start) / PAGE);
    int there = 0;
    for (int i = 0; i < count; i++)
      there = there || (ranges[i].page >= page && ranges[i].page + ranges[i].pages <= end);
    if (one->alive && !there && !one->users) return 0;
    needed += one->alive;
  }
  return needed == book.alive;
}

static void test_random(void) {
  packbuf_i_cache cache;
  pair ranges[RANGES];
  packbuf_i_registration *held[HOLDS] = {NULL};
  int count = 0, good = 1, found = 0, missed = 0;
  start(&cache);
  for (int round = 0; round < 6000 / TAP_STEP && good; round++) {
    const int page = below(CELLS), pages = 1 + below(round / 500 % 2 ? 3 : 8), slot = below(HOLDS), what = below(8);
    if (what < 2 && count < RANGES && (round / 300 % 2 || count < 12)) {
      const int was = covered(ranges, count, page, pages);
      const uint32_t before = book.count;
      good = !add(&cache, page, pages) && book.count - before == (was ? hit : 1);
      ranges[count].page = page;
      ranges[count++].pages = pages;
      if (!was) { /* the new one has no byte that nobody registered */
        const handle *one = &book.handles[before];
        good = good && covered(ranges, count, (int)((one->start - (uint64_t)(uintptr_t)memory) / PAGE),
                               (int)((one->end - one->start) / PAGE));
      }
    } else if (what < 4 && count) {
      const int i = below(count);
      int waits = 0;
      for (int k = 0; k < HOLDS; k++) waits = waits || held[k];
      if (waits) continue; /* it could wait for what this thread holds */
      good = !leave(&cache, ranges[i].page, ranges[i].pages);
      ranges[i] = ranges[--count];
    } else if (!held[slot] && what < 6) {
      const packbuf_status status =
          packbuf_i_cache_hold(&cache, memory + page * PAGE, (uint64_t)pages * PAGE, 0, &held[slot], &error);
      const int there = covered(ranges, count, page, pages);
      good = status == (there ? PACKBUF_OK : PACKBUF_UNREGISTERED);
      if (there) found++;
      else missed++;
      if (held[slot]) ((handle *)held[slot]->handle)->users++;
    } else {
      for (int k = 0; k < HOLDS; k++) {
        if (held[k]) ((handle *)held[k]->handle)->users--;
        packbuf_i_cache_drop(&cache, held[k]);
        held[k] = NULL;
      }
    }
    good = good && !book.wrong && all_needed(ranges, count) && (count || book.alive <= HOLDS);
  }
  for (int k = 0; k < HOLDS; k++) {
    if (held[k]) ((handle *)held[k]->handle)->users--;
    packbuf_i_cache_drop(&cache, held[k]);
  }
  while (count && good) {
    good = !leave(&cache, ranges[count - 1].page, ranges[count - 1].pages);
    count--;
  }
  tap_ok(good && !book.alive && found > 100 / TAP_STEP && missed > 100 / TAP_STEP,
         "random calls: %d found, %d not registered, %u registrations", found, missed, book.count);
  tap_ok(clean_end(&cache), "ended");
}

/* ---- many threads ---- */

enum { THREADS = 4 };

typedef struct crowd {
  packbuf_i_cache cache;
  uint32_t wrong, next, automatic;
} crowd;

static void *operations(void *argument) {
  crowd *all = (crowd *)argument;
  uint32_t seed = 777 * (1 + PACKBUF_I_ADD(&all->next, 1u));
  for (int round = 0; round < 4000 / TAP_STEP; round++) {
    packbuf_i_registration *one;
    handle *mine;
    const uint64_t from = (seed >> 8) % 30, size = (1 + (seed >> 16) % 4) * PAGE;
    seed = seed * 1664525u + 1013904223u;
    if (packbuf_i_cache_hold(&all->cache, memory + from * PAGE, size, (seed >> 20) % 16 == 0, &one, NULL)) continue;
    mine = (handle *)one->handle;
    (void)PACKBUF_I_ADD(&mine->users, 1u);
    if (!PACKBUF_I_LOAD(&mine->alive) || mine->start > (uint64_t)(uintptr_t)(memory + from * PAGE) ||
        mine->end < (uint64_t)(uintptr_t)(memory + from * PAGE) + size)
      (void)PACKBUF_I_ADD(&all->wrong, 1u);
    (void)PACKBUF_I_SUBTRACT(&mine->users, 1u);
    packbuf_i_cache_drop(&all->cache, one);
  }
  return NULL;
}

static void *registering(void *argument) {
  crowd *all = (crowd *)argument;
  uint32_t seed = 999 * (1 + PACKBUF_I_ADD(&all->next, 1u));
  for (int round = 0; round < 300 / TAP_STEP; round++) {
    int pages[3], from[3];
    for (int i = 0; i < 3; i++) {
      seed = seed * 1664525u + 1013904223u;
      from[i] = (int)(seed >> 10) % 24;
      pages[i] = 1 + (int)(seed >> 20) % 6;
      if (packbuf_i_cache_register(&all->cache, memory + from[i] * PAGE, (uint64_t)pages[i] * PAGE, NULL))
        (void)PACKBUF_I_ADD(&all->wrong, 1u);
    }
    for (int i = 0; i < 3; i++)
      if (packbuf_i_cache_unregister(&all->cache, memory + from[i] * PAGE, (uint64_t)pages[i] * PAGE, NULL))
        (void)PACKBUF_I_ADD(&all->wrong, 1u);
  }
  return NULL;
}

static void test_threads(void) {
  static crowd all;
  pthread_t threads[THREADS + 2];
  uint64_t made, bytes;
  memset(&all, 0, sizeof all);
  start(&all.cache);
  for (int i = 0; i < THREADS + 2; i++) (void)pthread_create(&threads[i], NULL, i < 2 ? registering : operations, &all);
  for (int i = 0; i < THREADS + 2; i++) (void)pthread_join(threads[i], NULL);
  packbuf_i_cache_counts(&all.cache, &made, &bytes);
  tap_ok(!all.wrong && !book.wrong && !book.alive && !bytes,
         "%u registrations by %d threads: none ended under an operation", (unsigned)made, THREADS + 2);
  tap_ok(clean_end(&all.cache), "ended");
}

int main(void) {
  void *map = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memory = (char *)map;
  packbuf_i_mark_memory((uint64_t)(uintptr_t)memory, (uint64_t)(uintptr_t)memory + PAGE);
  hit = !packbuf_i_memory_marked((uint64_t)(uintptr_t)memory, (uint64_t)(uintptr_t)memory + PAGE);
  test_joining();
  test_left_out();
  test_bytes();
  test_automatic();
  test_holding();
  test_remapped();
  test_failures();
  test_random();
  test_threads();
  return tap_plan_done();
}
