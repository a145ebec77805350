/* transport/cache.c: the registration cache of a store handle. Callers' ranges are counted; where they overlap or touch
 * they are one span, which is registered as a whole; a registration ends when no range needs it and no operation holds
 * it, never later: one that is kept idle becomes wrong when its memory is unmapped and other memory mapped there. For
 * those who do that without saying so, memory is marked (MADV_DONTDUMP, which goes with the mapping), and a call that
 * finds its range registered already looks whether the mark is still there.
 * May use: system. Must not know: what a registration is, which store it is for. */
#include <errno.h>
#include <fcntl.h>

/* What attach returned for the bytes from `start` to `end`. */
typedef struct packbuf_i_registration {
  uint64_t start, end;
  void *handle;
  uint64_t spans, holds;               /* without both it ends */
  struct packbuf_i_registration *next; /* of those that operations alone still hold */
} packbuf_i_registration;

/* What callers registered with the same numbers, `count` times. */
typedef struct packbuf_i_range {
  uint64_t start, end, count;
} packbuf_i_range;

/* Ranges that overlap or touch, as one; spans do neither. */
typedef struct packbuf_i_span {
  uint64_t start, end;
  packbuf_i_registration *registration; /* of all of it, and perhaps more */
} packbuf_i_span;

typedef struct packbuf_i_cache {
  packbuf_status (*attach)(void *state, const void *address, uint64_t size, void **registration, packbuf_error *error);
  void (*detach)(void *state, void *registration);
  void *state;
  packbuf_allocator allocator;
  packbuf_i_lock lock;
  packbuf_i_signal ended;  /* a registration that was waited for */
  packbuf_i_range *ranges; /* in order of start, then end */
  packbuf_i_span *spans;   /* in order */
  size_t range_count, span_count, range_room, span_room;
  packbuf_i_registration *leaving;
  uint64_t registrations, registered;
} packbuf_i_cache;

/* ---- marks ---- */

/* A mark stays until its memory is unmapped: others may have wanted it too, so it is not taken away. What marks memory
 * that was mapped anew (another handle that registers it, a pool) hides from this one that it was. */

#if defined(__linux__) && defined(MADV_DONTDUMP)

static void packbuf_i_mark_memory(uint64_t start, uint64_t end) {
  const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = start / page * page;
  (void)madvise((void *)(uintptr_t)from, (size_t)(end - from), MADV_DONTDUMP);
}

/* A walk through /proc/self/smaps: all below `at` is marked. */
typedef struct packbuf_i_smaps {
  uint64_t at, end;
  uint64_t mapping_end; /* of the mapping that `at` is in; 0: not come to */
  char line[256];       /* as much of the line as fits */
  size_t length;
} packbuf_i_smaps;

/* The hexadecimal number at *text, which is moved behind it. */
static uint64_t packbuf_i_smaps_number(const char **text) {
  uint64_t number = 0;
  for (;; ++*text) {
    const char c = **text;
    if (c >= '0' && c <= '9') number = number << 4 | (uint64_t)(c - '0');
    else if (c >= 'a' && c <= 'f') number = number << 4 | (uint64_t)(c - 'a' + 10);
    else return number;
  }
}

/* One line: "start-end ..." begins a mapping, "VmFlags: rd wr dd" ends it. 1: all is marked, -1: not all is, 0: more
 * lines are wanted. */
static int packbuf_i_smaps_line(packbuf_i_smaps *smaps) {
  const char *text = smaps->line;
  if (strncmp(text, "VmFlags:", 8) == 0) {
    if (!smaps->mapping_end) return 0;
    if (!strstr(text, " dd")) return -1;
    smaps->at = smaps->mapping_end;
    return smaps->at >= smaps->end;
  }
  if (*text < 'A' || *text > 'Z') {
    const uint64_t start = packbuf_i_smaps_number(&text);
    uint64_t end;
    if (*text != '-') return -1;
    text++;
    end = packbuf_i_smaps_number(&text);
    if (end <= smaps->at) return 0;
    if (start > smaps->at) return -1;
    smaps->mapping_end = end;
  }
  return 0;
}

/* Some of the file's bytes. */
static int packbuf_i_smaps_bytes(packbuf_i_smaps *smaps, const char *bytes, size_t count) {
  int found = 0;
  for (size_t i = 0; i < count && !found; i++) {
    if (bytes[i] != '\n') {
      if (smaps->length < sizeof smaps->line - 1) smaps->line[smaps->length++] = bytes[i];
      continue;
    }
    smaps->line[smaps->length] = 0;
    smaps->length = 0;
    found = packbuf_i_smaps_line(smaps);
  }
  return found;
}

/* 1: all pages carry the mark, so they are those that were registered. 0: they are not, or that cannot be seen. */
static int packbuf_i_memory_marked(uint64_t start, uint64_t end) {
  packbuf_i_smaps smaps;
  char bytes[4096];
  int found = 0;
  const int file = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  memset(&smaps, 0, sizeof smaps);
  smaps.at = start;
  smaps.end = end;
  while (!found) {
    const ssize_t got = read(file, bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    found = packbuf_i_smaps_bytes(&smaps, bytes, (size_t)got);
  }
  (void)close(file);
  return found > 0;
}

#else

static void packbuf_i_mark_memory(uint64_t start, uint64_t end) { (void)start, (void)end; }
static int packbuf_i_memory_marked(uint64_t start, uint64_t end) { return (void)start, (void)end, 1; }

#endif

/* ---- registrations ---- */

/* Registers the bytes from `start` to `end`. */
static packbuf_status packbuf_i_cache_attach(packbuf_i_cache *cache, uint64_t start, uint64_t end,
                                             packbuf_i_registration **made, packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  packbuf_i_registration *one = (packbuf_i_registration *)packbuf_i_heap(&cache->allocator, NULL, 0, sizeof **made);
  if (!one) return packbuf_i_no_memory(error);
  one->start = start;
  one->end = end;
  if (cache->attach)
    status = cache->attach(cache->state, (const void *)(uintptr_t)start, end - start, &one->handle, error);
  if (status) {
    (void)packbuf_i_heap(&cache->allocator, one, sizeof *one, 0);
    return status;
  }
  *made = one;
  return PACKBUF_OK;
}

static void packbuf_i_cache_count(packbuf_i_cache *cache, const packbuf_i_registration *one) {
  cache->registrations++;
  cache->registered += one->end - one->start;
}

static void packbuf_i_cache_detach(packbuf_i_cache *cache, packbuf_i_registration *one) {
  if (cache->attach && cache->detach) cache->detach(cache->state, one->handle);
  cache->registered -= one->end - one->start;
  (void)packbuf_i_heap(&cache->allocator, one, sizeof *one, 0);
}

/* A span no longer needs it. */
static void packbuf_i_cache_let_go(packbuf_i_cache *cache, packbuf_i_registration *one) {
  if (--one->spans) return;
  if (!one->holds) {
    packbuf_i_cache_detach(cache, one);
    return;
  }
  one->next = cache->leaving;
  cache->leaving = one;
}

/* Whether operations hold a registration of these bytes that nobody else needs. */
static int packbuf_i_cache_leaving(const packbuf_i_cache *cache, uint64_t start, uint64_t end) {
  const packbuf_i_registration *one = cache->leaving;
  while (one && (one->end <= start || one->start >= end)) one = one->next;
  return one != NULL;
}

/* ---- ranges and spans ---- */

/* The first range that does not lie before (start, end). */
static size_t packbuf_i_cache_range(const packbuf_i_cache *cache, uint64_t start, uint64_t end) {
  size_t low = 0, high = cache->range_count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const packbuf_i_range *range = &cache->ranges[middle];
    if (range->start < start || (range->start == start && range->end < end)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/* The first span that ends at `start` or behind it. */
static size_t packbuf_i_cache_span(const packbuf_i_cache *cache, uint64_t start) {
  size_t low = 0, high = cache->span_count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (cache->spans[middle].end < start) low = middle + 1;
    else high = middle;
  }
  return low;
}

/* The span that has all bytes from `start` to `end`; NULL. */
static packbuf_i_span *packbuf_i_cache_covering(packbuf_i_cache *cache, uint64_t start, uint64_t end) {
  const size_t at = packbuf_i_cache_span(cache, start);
  if (at == cache->span_count || cache->spans[at].start > start || cache->spans[at].end < end) return NULL;
  return &cache->spans[at];
}

/* The array with room for one more element than `count`, perhaps moved; NULL: as it was. */
static void *packbuf_i_cache_room(packbuf_i_cache *cache, void *array, size_t count, size_t each, size_t *room) {
  const size_t more = *room ? *room * 2 : 16;
  if (count < *room) return array;
  array = packbuf_i_heap(&cache->allocator, array, *room * each, more * each);
  if (array) *room = more;
  return array;
}

/* Room for one more range, and for as many spans as ranges: there are never more. */
static int packbuf_i_cache_grow(packbuf_i_cache *cache) {
  void *array =
      packbuf_i_cache_room(cache, cache->ranges, cache->range_count, sizeof *cache->ranges, &cache->range_room);
  if (!array) return 0;
  cache->ranges = (packbuf_i_range *)array;
  array = packbuf_i_cache_room(cache, cache->spans, cache->range_count, sizeof *cache->spans, &cache->span_room);
  if (!array) return 0;
  cache->spans = (packbuf_i_span *)array;
  return 1;
}

/* Counts a range, for which there is room. */
static void packbuf_i_cache_add_range(packbuf_i_cache *cache, uint64_t start, uint64_t end) {
  const size_t at = packbuf_i_cache_range(cache, start, end);
  packbuf_i_range *range = cache->ranges + at;
  if (at == cache->range_count || range->start != start || range->end != end) {
    memmove(range + 1, range, (cache->range_count - at) * sizeof *range);
    cache->range_count++;
    range->start = start;
    range->end = end;
    range->count = 0;
  }
  range->count++;
}

static void packbuf_i_cache_remove_range(packbuf_i_cache *cache, size_t at) {
  packbuf_i_range *range = cache->ranges + at;
  memmove(range, range + 1, (--cache->range_count - at) * sizeof *range);
}

/* Puts one span, for which there is room, in the place of `old` others. */
static void packbuf_i_cache_put_span(packbuf_i_cache *cache, size_t at, size_t old, uint64_t start, uint64_t end,
                                     packbuf_i_registration *registration) {
  packbuf_i_span *span = cache->spans + at;
  memmove(span + 1, span + old, (cache->span_count - at - old) * sizeof *span);
  cache->span_count = cache->span_count + 1 - old;
  span->start = start;
  span->end = end;
  span->registration = registration;
  registration->spans++;
}

/* Registers a span and its neighbours as one. Operations may still hold what was registered before. */
static packbuf_status packbuf_i_cache_join(packbuf_i_cache *cache, uint64_t start, uint64_t end, packbuf_error *error) {
  const size_t at = packbuf_i_cache_span(cache, start);
  packbuf_i_registration *one = NULL;
  packbuf_status status;
  size_t old = 0;
  for (; at + old < cache->span_count && cache->spans[at + old].start <= end; old++) {
    const packbuf_i_span *span = &cache->spans[at + old];
    if (start > span->start) start = span->start;
    if (end < span->end) end = span->end;
  }
  packbuf_i_mark_memory(start, end);
  status = packbuf_i_cache_attach(cache, start, end, &one, error);
  if (status) return status;
  packbuf_i_cache_count(cache, one);
  for (size_t i = at; i < at + old; i++) packbuf_i_cache_let_go(cache, cache->spans[i].registration);
  packbuf_i_cache_put_span(cache, at, old, start, end, one);
  return PACKBUF_OK;
}

/* Makes spans anew of the ranges that one span still has. */
static void packbuf_i_cache_split(packbuf_i_cache *cache, packbuf_i_span *split) {
  const packbuf_i_span span = *split;
  size_t at = (size_t)(split - cache->spans), range = packbuf_i_cache_range(cache, span.start, 0);
  memmove(split, split + 1, (--cache->span_count - at) * sizeof *split);
  while (range < cache->range_count && cache->ranges[range].start < span.end) {
    const uint64_t start = cache->ranges[range].start;
    uint64_t end = start;
    for (; range < cache->range_count && cache->ranges[range].start <= end; range++)
      if (end < cache->ranges[range].end) end = cache->ranges[range].end;
    packbuf_i_cache_put_span(cache, at++, 0, start, end, span.registration);
  }
  packbuf_i_cache_let_go(cache, span.registration);
}

/* ---- for stores ---- */

/* attach, detach: as in a driver; NULL: any memory will do, and ranges are counted alone. allocator NULL: the default.
 * 0: no locks. */
static int packbuf_i_cache_start(packbuf_i_cache *cache,
                                 packbuf_status (*attach)(void *state, const void *address, uint64_t size,
                                                          void **registration, packbuf_error *error),
                                 void (*detach)(void *state, void *registration), void *state,
                                 const packbuf_allocator *allocator) {
  memset(cache, 0, sizeof *cache);
  cache->attach = attach;
  cache->detach = detach;
  cache->state = state;
  if (allocator) cache->allocator = *allocator;
  if (!packbuf_i_lock_start(&cache->lock)) return 0;
  if (packbuf_i_signal_start(&cache->ended)) return 1;
  packbuf_i_lock_end(&cache->lock);
  return 0;
}

/* Ends all registrations. No operation holds one, no other thread is in a call. */
static void packbuf_i_cache_end(packbuf_i_cache *cache) {
  for (size_t i = 0; i < cache->span_count; i++) packbuf_i_cache_let_go(cache, cache->spans[i].registration);
  (void)packbuf_i_heap(&cache->allocator, cache->spans, cache->span_room * sizeof *cache->spans, 0);
  (void)packbuf_i_heap(&cache->allocator, cache->ranges, cache->range_room * sizeof *cache->ranges, 0);
  packbuf_i_signal_end(&cache->ended);
  packbuf_i_lock_end(&cache->lock);
}

/* The range as numbers. 0: there is no such memory. */
static int packbuf_i_cache_numbers(const void *address, uint64_t size, uint64_t *start, uint64_t *end) {
  *start = (uint64_t)(uintptr_t)address;
  return address && size && size <= UINTPTR_MAX - *start && packbuf_i_add(*start, size, end);
}

static const char packbuf_i_no_range_text[] = "a range has an address and at least one byte, and ends in memory";

/* packbuf_register. */
static packbuf_status packbuf_i_cache_register(packbuf_i_cache *cache, const void *address, uint64_t size,
                                               packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  uint64_t start, end;
  if (!packbuf_i_cache_numbers(address, size, &start, &end))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, packbuf_i_no_range_text);
  packbuf_i_locked(&cache->lock);
  if (!packbuf_i_cache_grow(cache)) status = packbuf_i_no_memory(error);
  else if (!packbuf_i_cache_covering(cache, start, end) || !packbuf_i_memory_marked(start, end))
    status = packbuf_i_cache_join(cache, start, end, error);
  if (!status) packbuf_i_cache_add_range(cache, start, end);
  packbuf_i_unlocked(&cache->lock);
  return status;
}

/* packbuf_unregister: returns when no operation uses a registration that ended by it. */
static packbuf_status packbuf_i_cache_unregister(packbuf_i_cache *cache, const void *address, uint64_t size,
                                                 packbuf_error *error) {
  uint64_t start, end;
  size_t at;
  if (!packbuf_i_cache_numbers(address, size, &start, &end))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, packbuf_i_no_range_text);
  packbuf_i_locked(&cache->lock);
  at = packbuf_i_cache_range(cache, start, end);
  if (at == cache->range_count || cache->ranges[at].start != start || cache->ranges[at].end != end) {
    packbuf_i_unlocked(&cache->lock);
    return packbuf_i_fail(error, PACKBUF_NOT_FOUND, "no such range is registered", start, PACKBUF_NOWHERE);
  }
  if (--cache->ranges[at].count == 0) {
    packbuf_i_cache_remove_range(cache, at);
    packbuf_i_cache_split(cache, packbuf_i_cache_covering(cache, start, end));
    while (packbuf_i_cache_leaving(cache, start, end))
      (void)packbuf_i_wait(&cache->ended, &cache->lock, PACKBUF_FOREVER);
  }
  packbuf_i_unlocked(&cache->lock);
  return PACKBUF_OK;
}

/* Holds the registration of memory that an operation names, until packbuf_i_cache_drop: *registration, whose handle is
 * what attach returned; NULL for no bytes. Memory that nobody registered is registered for this operation alone where
 * that is allowed, else UNREGISTERED with its address as error->offset. */
static packbuf_status packbuf_i_cache_hold(packbuf_i_cache *cache, const void *address, uint64_t size,
                                           int allow_automatic, packbuf_i_registration **registration,
                                           packbuf_error *error) {
  packbuf_i_span *span;
  packbuf_status status;
  uint64_t start, end;
  *registration = NULL;
  if (!size) return PACKBUF_OK;
  if (!packbuf_i_cache_numbers(address, size, &start, &end))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, packbuf_i_no_range_text);
  packbuf_i_locked(&cache->lock);
  span = packbuf_i_cache_covering(cache, start, end);
  if (span) {
    *registration = span->registration;
    span->registration->holds++;
  }
  packbuf_i_unlocked(&cache->lock);
  if (span) return PACKBUF_OK;
  if (!allow_automatic)
    return packbuf_i_fail(error, PACKBUF_UNREGISTERED, "memory that is not registered", start, PACKBUF_NOWHERE);
  status = packbuf_i_cache_attach(cache, start, end, registration, error);
  if (status) return status;
  packbuf_i_locked(&cache->lock);
  packbuf_i_cache_count(cache, *registration);
  (*registration)->holds = 1;
  (*registration)->next = cache->leaving;
  cache->leaving = *registration;
  packbuf_i_unlocked(&cache->lock);
  return PACKBUF_OK;
}

/* The operation has ended. NULL is fine. */
static void packbuf_i_cache_drop(packbuf_i_cache *cache, packbuf_i_registration *registration) {
  if (!registration) return;
  packbuf_i_locked(&cache->lock);
  if (--registration->holds == 0 && !registration->spans) {
    packbuf_i_registration **at = &cache->leaving;
    while (*at != registration) at = &(*at)->next;
    *at = registration->next;
    packbuf_i_cache_detach(cache, registration);
    packbuf_i_signal_all(&cache->ended);
  }
  packbuf_i_unlocked(&cache->lock);
}

/* Registrations so far, and bytes that are registered now. */
static void packbuf_i_cache_counts(packbuf_i_cache *cache, uint64_t *registrations, uint64_t *registered) {
  packbuf_i_locked(&cache->lock);
  *registrations = cache->registrations;
  *registered = cache->registered;
  packbuf_i_unlocked(&cache->lock);
}
