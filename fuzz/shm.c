/* Fuzz target: the file of a shm store, written to by anybody. The input is a script: bytes of header and tables are
 * changed (the header's checksum put right, or not), and two handles put, get, list, remove, reserve, collect, close
 * and open between that. Nothing is read or written outside of the mapping, and every call comes back with a status.
 * May use: tests/shm_helper.h. Must not know: how the tables should look. */
#include "tests/shm_helper.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct script {
  const uint8_t *at;
  size_t left;
} script;

static uint64_t next(script *s, unsigned bytes) {
  uint64_t number = 0;
  for (unsigned i = 0; i < bytes && s->left; i++, s->at++, s->left--) number = number << 8 | *s->at;
  return number;
}

static volatile unsigned touched;

static void touch(const void *bytes, uint64_t size) {
  for (uint64_t i = 0; i < size; i += 512) touched += ((const uint8_t *)bytes)[i];
  if (size) touched += ((const uint8_t *)bytes)[size - 1];
}

static uint8_t *tables, *fresh; /* of the one file; and as they were when it was made */
static packbuf_i_shm_facts facts;
static uint64_t table_size;

/* One file for all inputs: making one takes longer than using it. */
static int ready(void) {
  char path[128];
  handle h;
  int fd;
  if (tables) return 1;
  shm_fresh();
  (void)atexit(shm_away);
  if (handle_open(&h, "?size=256k&objects=64&sessions=4") != PACKBUF_OK) return 0;
  facts = shm_of(&h)->facts;
  handle_close(&h);
  snprintf(path, sizeof path, "/dev/shm/packbuf.%s", shm_name);
  fd = open(path, O_RDWR);
  table_size = facts.owners_at + facts.units * 4;
  tables = (uint8_t *)mmap(NULL, (size_t)table_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  fresh = (uint8_t *)malloc((size_t)table_size);
  (void)close(fd);
  if (tables == MAP_FAILED || !fresh) abort();
  memcpy(fresh, tables, (size_t)table_size);
  return 1;
}

/* Where it matters: words, cells, records of the first slots, owners; sometimes anywhere. */
static void poke(script *s) {
  const uint64_t at[] = {
      0, facts.words_at, facts.pins_at, facts.cells_at, facts.slots_at, facts.owners_at, facts.sessions_at, 1024};
  const unsigned where = (unsigned)next(s, 1);
  uint64_t offset = at[where % 8] + next(s, 2) * (where & 8 ? 1 : 8), value = next(s, 8);
  const unsigned bytes = where & 16 ? 1 : 8;
  if (offset > table_size - 8) offset = table_size - 8;
  memcpy(tables + offset, &value, bytes);
  if (where & 32) {
    packbuf_i_shm_facts now;
    memcpy(&now, tables, sizeof now);
    now.crc = packbuf_i_shm_crc(&now);
    memcpy(tables, &now, sizeof now);
  }
}

static void get_some(handle *h, script *s, const char *key) {
  uint8_t into[256];
  packbuf_item item = item_of(key);
  packbuf_range ranges[2];
  const unsigned how = (unsigned)next(s, 1);
  if (how & 1) {
    ranges[0].offset = next(s, 2);
    ranges[0].length = next(s, 2);
    ranges[1].offset = next(s, 2);
    ranges[1].length = next(s, how & 4 ? 8 : 1);
    item.ranges = ranges;
    item.range_count = 2;
  }
  if (how & 2) item.into = into, item.capacity = sizeof into;
  handle_run(h, PACKBUF_GET, &item, 1, PACKBUF_NO_WAIT);
  if (item.status == PACKBUF_STATUS_MAX_) abort();
  if (item.status == PACKBUF_OK && !item.into) touch(item.lease.data, item.lease.size);
  if (item.lease.token) DRIVER.let_go(h->state, item.lease.token);
}

static void reserve_some(handle *h, script *s) {
  uint64_t sizes[2] = {0, 0}, tokens[2] = {0, 0};
  void *data[2];
  sizes[0] = next(s, 3);
  sizes[1] = next(s, 2);
  if (DRIVER.reserve(h->state, sizes, 2, PACKBUF_NO_WAIT, data, tokens, NULL) != PACKBUF_OK) return;
  if (sizes[0]) *(volatile uint8_t *)data[0] = 1, ((volatile uint8_t *)data[0])[sizes[0] - 1] = 1;
  poke(s);
  DRIVER.give_back(h->state, tokens[0]);
  DRIVER.give_back(h->state, tokens[1]);
}

static void look_around(handle *h) {
  packbuf_listed listed[4];
  packbuf_store_info info;
  packbuf_counters counters;
  uint64_t cursor = 0, count;
  memset(&counters, 0, sizeof counters);
  do
    if (DRIVER.list(h->state, NULL, &cursor, listed, 4, &count, 0, NULL) != PACKBUF_OK) break;
  while (cursor);
  (void)DRIVER.describe(h->state, &info, 0, NULL);
  DRIVER.count(h->state, &counters);
  (void)DRIVER.collect(h->state, 0, NULL, NULL);
}

static void step(handle *h, script *s) {
  static const char *const keys[] = {"a", "b", "c", "dd"};
  const unsigned what = (unsigned)next(s, 1);
  const char *key = keys[what >> 4 & 3];
  switch (what & 15) {
    case 0:
    case 1:
    case 2: poke(s); break;
    case 3:
    case 4:
      (void)put_with(h, key, next(s, 2), 1, what & 64 ? PACKBUF_PUT_EVICTABLE : 0, what & 128 ? 1 : 0, PACKBUF_NO_WAIT);
      break;
    case 5:
    case 6: get_some(h, s, key); break;
    case 7: (void)removed(h, key, PACKBUF_NO_WAIT); break;
    case 8: reserve_some(h, s); break;
    case 9: look_around(h); break;
    case 10: (void)one(h, PACKBUF_STAT, key, 0, PACKBUF_NO_WAIT); break;
    case 11:
      handle_close(h);
      (void)handle_open(h, "");
      break;
    default: break;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  script s;
  handle h[2];
  s.at = data;
  s.left = size;
  if (!ready()) return 0;
  memcpy(tables, fresh, (size_t)table_size);
  if (handle_open(&h[0], "") != PACKBUF_OK || handle_open(&h[1], "") != PACKBUF_OK) abort();
  while (s.left) {
    handle *const who = &h[next(&s, 1) & 1];
    if (who->state) step(who, &s);
    else if (handle_open(who, "") != PACKBUF_OK) poke(&s);
  }
  handle_close(&h[0]);
  handle_close(&h[1]);
  return 0;
}
