/* The shm store's driver by itself: its file, its objects in two handles and two processes, leases, room, time, lists,
 * and what processes leave that are killed or stopped. The contract suite tests stores through handles. */
#include "shm_helper.h"
#include <poll.h>

#define SMALL "?size=4m&objects=256&sessions=16"

static void sleep_ms(unsigned ms) { packbuf_i_sleep_until(packbuf_now() + (uint64_t)ms * 1000000u); }

/* ---- the file ---- */

static int poke(uint64_t at, const void *bytes, size_t size, int seal) {
  char path[128];
  packbuf_i_shm_facts facts;
  int fd, good;
  snprintf(path, sizeof path, "/dev/shm/packbuf.%s", shm_name);
  fd = open(path, O_RDWR);
  good = fd >= 0 && pwrite(fd, bytes, size, (off_t)at) == (ssize_t)size;
  if (seal) {
    good = good && pread(fd, &facts, sizeof facts, 0) == (ssize_t)sizeof facts;
    facts.crc = packbuf_i_shm_crc(&facts);
    good = good && pwrite(fd, &facts, sizeof facts, 0) == (ssize_t)sizeof facts;
  }
  if (fd >= 0) close(fd);
  return good;
}

static void file_of_wrong_numbers(void) {
  packbuf_i_shm_facts facts;
  handle h;
  uint64_t wrong = 0, accepted = 0;
  shm_fresh();
  if (!tap_ok(handle_open(&h, SMALL) == PACKBUF_OK, "a store is made")) return;
  facts = shm_of(&h)->facts;
  handle_close(&h);
  for (size_t at = 0; at < offsetof(packbuf_i_shm_facts, id); at++) {
    for (int seal = 0; seal < 2; seal++) {
      const uint8_t byte = (uint8_t)(((const uint8_t *)&facts)[at] ^ 0x41);
      packbuf_status status;
      if (!poke(at, &byte, 1, seal)) wrong++;
      status = handle_open(&h, "");
      handle_close(&h);
      if (status == PACKBUF_OK && seal && at >= offsetof(packbuf_i_shm_facts, made_at)) continue; /* for people */
      accepted += status != PACKBUF_PROTOCOL && status != PACKBUF_UNSUPPORTED_VERSION;
      (void)poke(0, &facts, sizeof facts, 0);
    }
  }
  tap_ok(!wrong && !accepted, "each byte of the header's numbers, changed: refused (%lu were not)",
         (unsigned long)accepted);
  (void)poke(0, &facts, sizeof facts, 0);
  tap_ok(handle_open(&h, "") == PACKBUF_OK, "put right again, it opens");
  handle_close(&h);
}

static void file_of_wrong_length(void) {
  char path[128];
  handle h;
  int good = 1;
  static const long lengths[] = {0, 1, 100, 4095, 4096, 2 << 20, (8 << 20) - 1};
  shm_fresh();
  snprintf(path, sizeof path, "/dev/shm/packbuf.%s", shm_name);
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    good = good && handle_open(&h, SMALL) == PACKBUF_OK;
    handle_close(&h);
    good = good && truncate(path, lengths[i]) == 0 && handle_open(&h, "") == PACKBUF_PROTOCOL;
    unlink(path);
  }
  tap_ok(good, "a file that was cut: PROTOCOL");
  good = handle_open(&h, SMALL) == PACKBUF_OK;
  handle_close(&h);
  tap_ok(good && truncate(path, 64 << 20) == 0 && handle_open(&h, "") == PACKBUF_PROTOCOL, "one that grew: PROTOCOL");
  unlink(path);
  tap_ok(symlink("/dev/null", path) == 0 && handle_open(&h, "") == PACKBUF_DENIED, "a link: DENIED");
  unlink(path);
  tap_ok(mkdir(path, 0700) == 0 && handle_open(&h, "") != PACKBUF_OK, "a folder: refused");
  rmdir(path);
}

static void file_asked_for(void) {
  handle h;
  packbuf_store_options options;
  struct stat info;
  char path[128];
  memset(&options, 0, sizeof options);
  shm_fresh();
  tap_ok(handle_open(&h, "?must_exist=1") == PACKBUF_NOT_FOUND, "must_exist: NOT_FOUND");
  tap_ok(handle_open(&h, "?objects=64") == PACKBUF_NOT_FOUND && strstr(h.error.message, "?size="),
         "no size: NOT_FOUND, and what makes one");
  tap_ok(handle_open(&h, "?size=900g") == PACKBUF_FULL && h.error.needed > ((uint64_t)900 << 30),
         "more than there is: FULL, and how much it needs");
  tap_ok(handle_open(&h, "?size=900g&must_exist=1") == PACKBUF_NOT_FOUND, "and no file is left");
  tap_ok(handle_open(&h, "?colour=red") == PACKBUF_INVALID_ARGUMENT, "unknown option: INVALID_ARGUMENT");
  tap_ok(handle_open(&h, "/x") == PACKBUF_INVALID_ARGUMENT, "a name with '/': INVALID_ARGUMENT");
  tap_ok(handle_open(&h, "?sessions=513") == PACKBUF_INVALID_ARGUMENT, "too many sessions: INVALID_ARGUMENT");
  tap_ok(handle_open(&h, "?mode=70000") == PACKBUF_INVALID_ARGUMENT, "a mode that is none: INVALID_ARGUMENT");
  tap_ok(handle_open(&h, "?dir=nowhere") == PACKBUF_INVALID_ARGUMENT, "a folder that is not absolute");
  tap_ok(handle_open(&h, "?dir=/nowhere/at/all&size=1m") == PACKBUF_SYSTEM && h.error.offset == ENOENT,
         "no folder: ENOENT");
  options.secret = "opens it";
  options.secret_size = 8;
  tap_ok(handle_open_with(&h, "?size=1m&mode=0660", options) == PACKBUF_OK, "made with a secret");
  snprintf(path, sizeof path, "/dev/shm/packbuf.%s", shm_name);
  tap_ok(stat(path, &info) == 0 && (info.st_mode & 0777) == 0660, "its mode is what was asked");
  handle_close(&h);
  tap_ok(handle_open(&h, "") == PACKBUF_DENIED, "without it: DENIED");
  options.secret = "opens it?";
  options.secret_size = 9;
  tap_ok(handle_open_with(&h, "", options) == PACKBUF_DENIED, "with another one: DENIED");
  options.secret_size = 8;
  tap_ok(handle_open_with(&h, "", options) == PACKBUF_OK, "with the right one: OK");
  handle_close(&h);
}

/* Eight processes make one store at once, by both ways of making it: all see the same one. */
static void file_made_by_many(int by_name) {
  packbuf_i_shm_plan plan;
  int pipes[2], good = 1;
  uint8_t ids[8][16];
  shm_fresh();
  if (pipe(pipes) != 0) abort();
  for (int i = 0; i < 8; i++) {
    const pid_t child = fork();
    if (child != 0) continue;
    memset(&plan, 0, sizeof plan);
    plan.by_name = by_name;
    plan.mode = 0600;
    plan.size = 1 << 20;
    plan.slots = 64;
    plan.sessions = 8;
    memcpy(plan.folder, "/dev/shm", 9);
    snprintf(plan.path, sizeof plan.path, "/dev/shm/packbuf.%s", shm_name);
    snprintf(plan.draft, sizeof plan.draft, "/dev/shm/packbuf.%s.making", shm_name);
    {
      packbuf_i_shm_facts facts;
      int fd = -1;
      memset(&facts, 0, sizeof facts);
      if (packbuf_i_shm_open_file(&plan, &fd, &facts, NULL) != PACKBUF_OK) memset(&facts, i + 1, sizeof facts);
      if (write(pipes[1], facts.id, 16) != 16) _exit(1);
    }
    _exit(0);
  }
  close(pipes[1]);
  for (int i = 0; i < 8; i++) good = good && read(pipes[0], ids[i], 16) == 16 && memcmp(ids[i], ids[0], 16) == 0;
  close(pipes[0]);
  while (wait(NULL) > 0) continue;
  tap_ok(good, "eight make it at once, %s: one store", by_name ? "by a draft's name" : "without a name");
}

/* A draft that a killed maker left does not matter. */
static void file_draft_left(void) {
  packbuf_i_shm_plan plan;
  packbuf_i_shm_facts facts;
  int fd;
  shm_fresh();
  memset(&plan, 0, sizeof plan);
  plan.by_name = 1;
  plan.mode = 0600;
  plan.size = 1 << 20;
  plan.slots = 64;
  plan.sessions = 8;
  snprintf(plan.path, sizeof plan.path, "/dev/shm/packbuf.%s", shm_name);
  snprintf(plan.draft, sizeof plan.draft, "/dev/shm/packbuf.%s.making", shm_name);
  fd = open(plan.draft, O_RDWR | O_CREAT, 0600);
  tap_ok(fd >= 0 && write(fd, "half of it", 10) == 10, "a draft that nobody locks");
  close(fd);
  tap_ok(packbuf_i_shm_open_file(&plan, &fd, &facts, NULL) == PACKBUF_OK, "is taken up and made a store");
  close(fd);
  tap_ok(access(plan.draft, F_OK) != 0, "and gone afterwards");
}

/* ---- objects, in two handles ---- */

static void objects_whole(handle *a, handle *b) {
  static const uint64_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 65535, 65536, (1 << 20) + 1};
  int good = 1;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    uint8_t *into = (uint8_t *)malloc(sizes[i] + 16);
    packbuf_item p = put(a, "sized", sizes[i], 7 + i), g, l;
    if (!into) abort();
    memset(into, 0xEE, sizes[i] + 16);
    g = item_of("sized");
    g.into = into + 8;
    g.capacity = sizes[i];
    handle_run(b, PACKBUF_GET, &g, 1, PACKBUF_NO_WAIT);
    l = get(b, "sized", p.stat.generation);
    good = good && p.status == PACKBUF_OK && g.status == PACKBUF_OK && l.status == PACKBUF_OK && g.got == sizes[i] &&
           l.lease.size == sizes[i] && (uintptr_t)l.lease.data % 4096 == 0 && content_is(into + 8, sizes[i], 7 + i) &&
           content_is(l.lease.data, sizes[i], 7 + i) && into[7] == 0xEE && into[8 + sizes[i]] == 0xEE &&
           l.stat.length == sizes[i] && l.stat.leases == 1;
    DRIVER.let_go(b->state, l.lease.token);
    free(into);
  }
  tap_ok(good, "objects of 0 to 1 MiB + 1 bytes, into memory and in place");
  tap_ok(removed(a, "sized", PACKBUF_NO_WAIT) == PACKBUF_OK && audit_good(a, 0), "removed: nothing is left");
}

static void objects_named(handle *a, handle *b) {
  packbuf_item first = put(a, "k", 100, 1), second, missing;
  char most[256];
  packbuf_ref about;
  packbuf_item item = item_of("about");
  second = put(b, "k", 200, 2);
  tap_ok(second.stat.generation > first.stat.generation, "generations ascend");
  tap_ok(get(a, "k", first.stat.generation).status == PACKBUF_STALE, "the older one is STALE");
  tap_ok(one(a, PACKBUF_STAT, "k", second.stat.generation + 1, 0).status == PACKBUF_STALE, "so is one to come");
  tap_ok(one(a, PACKBUF_REMOVE, "k", first.stat.generation, 0).status == PACKBUF_STALE, "nor can it be removed");
  tap_ok(one(a, PACKBUF_STAT, "k", 0, 0).stat.length == 200 && one(a, PACKBUF_STAT, "k", 0, 0).stat.leases == 0,
         "the newer one is there");
  missing = get(a, "j", 0);
  tap_ok(missing.status == PACKBUF_NOT_FOUND && a->done == 1, "another key: NOT_FOUND");
  memset(most, 'm', 255);
  most[255] = 0;
  tap_ok(put(a, most, 5, 3).status == PACKBUF_OK && get(b, most + 1, 0).status == PACKBUF_NOT_FOUND &&
             one(b, PACKBUF_STAT, most, 0, 0).status == PACKBUF_OK,
         "a key of 255 bytes is another than that of 254");
  memset(&about, 0, sizeof about);
  about.kind = PACKBUF_OBJECT_BATCH;
  about.head_length = 4711;
  about.head_checksum = 0xABCD;
  memset(about.fingerprint, 9, sizeof about.fingerprint);
  item.about = &about;
  handle_run(a, PACKBUF_PUT, &item, 1, 0);
  item = one(b, PACKBUF_STAT, "about", 0, 0);
  tap_ok(item.stat.kind == PACKBUF_OBJECT_BATCH && item.stat.head_length == 4711 && item.stat.head_checksum == 0xABCD &&
             item.stat.fingerprint[15] == 9 && item.stat.left_ms == UINT64_MAX,
         "what a put says about an object is kept");
  tap_ok(removed(a, "k", 0) == PACKBUF_OK && get(b, "k", 0).status == PACKBUF_NOT_FOUND &&
             removed(b, "k", 0) == PACKBUF_NOT_FOUND && removed(b, most, 0) == PACKBUF_OK &&
             removed(b, "about", 0) == PACKBUF_OK && audit_good(a, 0),
         "removed is NOT_FOUND, three times");
}

static void objects_in_ranges(handle *a) {
  uint8_t bytes[5000], into[64];
  packbuf_item item = item_of("r");
  packbuf_range ranges[3] = {{10, 5}, {4000, 3}, {4990, 10}};
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
  item.from = bytes;
  item.size = sizeof bytes;
  handle_run(a, PACKBUF_PUT, &item, 1, 0);
  item = item_of("r");
  item.ranges = ranges;
  item.range_count = 3;
  item.into = into;
  item.capacity = 18;
  handle_run(a, PACKBUF_GET, &item, 1, 0);
  tap_ok(item.status == PACKBUF_OK && item.got == 18 && !memcmp(into, bytes + 10, 5) &&
             !memcmp(into + 5, bytes + 4000, 3) && !memcmp(into + 8, bytes + 4990, 10),
         "ranges end to end");
  item.capacity = 17;
  handle_run(a, PACKBUF_GET, &item, 1, 0);
  tap_ok(item.status == PACKBUF_CAPACITY && item.got == 0, "too little room: CAPACITY");
  item.into = NULL;
  handle_run(a, PACKBUF_GET, &item, 1, 0);
  tap_ok(item.status == PACKBUF_OK && item.lease.size == 18 && !memcmp(item.lease.data, into, 18),
         "as a lease: a copy");
  DRIVER.let_go(a->state, item.lease.token);
  ranges[1].offset = 15;
  item.range_count = 2;
  handle_run(a, PACKBUF_GET, &item, 1, 0);
  tap_ok(item.status == PACKBUF_OK && item.lease.size == 8 && !memcmp(item.lease.data, bytes + 10, 8) &&
             (const uint8_t *)item.lease.data - shm_of(a)->data < (ptrdiff_t)shm_of(a)->data_size,
         "those that lie end to end: in place");
  DRIVER.let_go(a->state, item.lease.token);
  ranges[0].offset = 5000;
  ranges[0].length = 1;
  handle_run(a, PACKBUF_GET, &item, 1, 0);
  tap_ok(item.status == PACKBUF_OUT_OF_RANGE, "past the end: OUT_OF_RANGE");
  ranges[0].offset = 8;
  ranges[0].length = UINT64_MAX - 4;
  handle_run(a, PACKBUF_GET, &item, 1, 0);
  tap_ok(item.status == PACKBUF_OUT_OF_RANGE, "beyond 2^64: OUT_OF_RANGE");
  tap_ok(removed(a, "r", 0) == PACKBUF_OK && audit_good(a, 0), "no pin was left");
}

static void objects_in_slices(handle *a, handle *b) {
  uint64_t sizes[3] = {100000, 5000, 1}, tokens[3], used;
  void *data[3];
  packbuf_slice slice;
  packbuf_item item = item_of("slice"), got;
  packbuf_store_info info;
  tap_ok(DRIVER.reserve(a->state, sizes, 3, 0, data, tokens, &a->error) == PACKBUF_OK, "three slices");
  memset(&slice, 0, sizeof slice);
  slice.holder = &shm_holder;
  slice.data = data[0];
  slice.size = sizes[0];
  slice.token = tokens[0];
  content_fill(data[0], 9000, 77);
  item.slice = &slice;
  item.from = data[0];
  item.size = 9000;
  handle_run(a, PACKBUF_PUT, &item, 1, 0);
  got = get(b, "slice", 0);
  tap_ok(item.status == PACKBUF_OK && slice.data == data[0] && got.lease.size == 9000 &&
             content_is(got.lease.data, 9000, 77) &&
             (const uint8_t *)got.lease.data - shm_of(b)->data == (uint8_t *)data[0] - shm_of(a)->writable,
         "a slice becomes the object");
  DRIVER.let_go(b->state, got.lease.token);
  DRIVER.give_back(a->state, tokens[1]);
  slice.data = data[2];
  slice.token = tokens[2];
  item.from = data[2];
  item.size = 1;
  a->cancel = 1;
  handle_run(a, PACKBUF_PUT, &item, 1, 0);
  a->cancel = 0;
  tap_ok(item.status == PACKBUF_CANCELLED && packbuf_i_shm_claimed(shm_of(a), (uint32_t)tokens[2] - 1),
         "a cancelled put leaves the slice to its owner");
  DRIVER.give_back(a->state, tokens[2]);
  DRIVER.describe(a->state, &info, 0, NULL);
  used = info.used;
  tap_ok(used == 3 * 4096 && info.objects == 1, "the tail and the other slices are free again (%lu used)",
         (unsigned long)used);
  sizes[0] = 8 << 20;
  tap_ok(DRIVER.reserve(a->state, sizes, 1, PACKBUF_FOREVER, data, tokens, &a->error) == PACKBUF_CAPACITY,
         "more than the store: CAPACITY, whatever the deadline");
  a->cancel = 1;
  a->asks = 1; /* after it was copied */
  tap_ok(put(a, "cancelled", 9000, 1).status == PACKBUF_CANCELLED && audit_of(a).other == 0 &&
             get(b, "cancelled", 0).status == PACKBUF_NOT_FOUND,
         "a cancelled put without a slice keeps nothing");
  a->cancel = 0;
  put(b, "half", 2 << 20, 1);
  sizes[0] = sizes[1] = 1 << 19;
  sizes[2] = (1 << 20) + (1 << 18);
  tap_ok(DRIVER.reserve(a->state, sizes, 2, 0, data, tokens, &a->error) == PACKBUF_OK, "two that fit");
  DRIVER.give_back(a->state, tokens[0]);
  DRIVER.give_back(a->state, tokens[1]);
  tap_ok(DRIVER.reserve(a->state, sizes, 3, 0, data, tokens, &a->error) == PACKBUF_FULL && audit_of(a).other == 0,
         "three that do not: none is kept");
  tap_ok(removed(a, "half", 0) == PACKBUF_OK, "the other half");
  tap_ok(removed(a, "slice", 0) == PACKBUF_OK && audit_good(a, 0), "nothing is left");
}

static void objects_in_batches(handle *a, handle *b) {
  static char keys[200][16];
  static packbuf_item items[200];
  static uint64_t contents[200];
  uint64_t right = 0;
  for (int i = 0; i < 200; i++) {
    snprintf(keys[i], sizeof keys[i], "key%d", i);
    contents[i] = (uint64_t)i;
    items[i] = item_of(keys[i]);
    items[i].from = &contents[i];
    items[i].size = 8;
  }
  handle_run(a, PACKBUF_PUT, items, 200, 0);
  for (int i = 0; i < 200; i++) right += items[i].status == PACKBUF_OK;
  tap_ok(right == 200 && a->done == 200, "200 put");
  for (int i = 0; i < 200; i++) items[i] = item_of(keys[i]);
  items[7].key = "missing";
  items[8].generation = 1;
  handle_run(b, PACKBUF_GET, items, 200, 0);
  right = 0;
  for (int i = 0; i < 200; i++)
    right += items[i].status == PACKBUF_OK && content_is(items[i].lease.data, 8, (uint64_t)i);
  tap_ok(right == 198 && items[7].status == PACKBUF_NOT_FOUND && items[8].status == PACKBUF_STALE && b->done == 200,
         "200 got, but for one that is missing and one that is stale");
  for (int i = 0; i < 200; i++) DRIVER.let_go(b->state, items[i].lease.token);
  for (int i = 0; i < 200; i++) items[i] = item_of(keys[i]);
  handle_run(b, PACKBUF_REMOVE, items, 200, 0);
  right = 0;
  for (int i = 0; i < 200; i++) right += items[i].status == PACKBUF_OK && !items[i].got && !items[i].lease.token;
  tap_ok(right == 200 && b->done == 200 && audit_good(a, 0), "200 removed");
}

/* ---- leases ---- */

static void leases_hold(handle *a, handle *b) {
  packbuf_item old = put(a, "held", 50000, 1), lease = get(b, "held", 0), more, now;
  uint64_t before;
  put(a, "held", 60000, 2);
  more = get(b, "held", 0);
  put(a, "held", 70000, 3);
  for (int i = 0; i < 30; i++) put(a, "other", 4096 * 3, 99); /* would reuse its memory */
  tap_ok(content_is(lease.lease.data, 50000, 1) && content_is(more.lease.data, 60000, 2), "leased bytes stay");
  tap_ok(get(b, "held", old.stat.generation).status == PACKBUF_STALE, "though STALE for others");
  now = get(a, "held", 0);
  tap_ok(content_is(now.lease.data, 70000, 3), "new gets: the newest");
  before = packbuf_now();
  tap_ok(removed(a, "held", PACKBUF_NO_WAIT) == PACKBUF_LEASED, "removed while leased: LEASED at once");
  tap_ok(get(b, "held", 0).status == PACKBUF_NOT_FOUND, "and nobody finds any");
  put(a, "held", 10, 4);
  DRIVER.let_go(a->state, now.lease.token);
  now = get(b, "held", 0);
  before = packbuf_now();
  tap_ok(removed(a, "held", packbuf_deadline_in(100)) == PACKBUF_LEASED && packbuf_now() - before >= 90000000,
         "with a deadline: LEASED then");
  DRIVER.let_go(b->state, now.lease.token);
  DRIVER.let_go(b->state, lease.lease.token);
  DRIVER.let_go(b->state, more.lease.token);
  tap_ok(removed(a, "other", 0) == PACKBUF_OK && audit_good(a, 0), "memory is back after the last one, without a call");
}

static void leases_twice(handle *a, handle *b) {
  packbuf_item x, y, z;
  put(a, "twice", 10, 1);
  x = get(a, "twice", 0);
  y = get(a, "twice", 0);
  z = get(b, "twice", 0);
  tap_ok(z.stat.leases == 2, "two handles hold it");
  tap_ok(removed(b, "twice", 0) == PACKBUF_LEASED, "removed");
  DRIVER.let_go(a->state, x.lease.token);
  DRIVER.let_go(b->state, z.lease.token);
  tap_ok(audit_of(a).other == 1 && content_is(y.lease.data, 10, 1), "not before the last lease");
  DRIVER.let_go(a->state, y.lease.token);
  tap_ok(audit_good(a, 0), "after it: free");
}

/* A put that was stopped between its generation and the end, while another one of that key came and went by. */
static void overtaken(handle *a, handle *b) {
  packbuf_i_shm *shm = shm_of(a);
  const packbuf_i_shm_key key = packbuf_i_shm_key_of(shm, "late");
  packbuf_i_shm_about about;
  packbuf_item newer, item;
  int slots;
  const uint32_t slot = packbuf_i_shm_claim(shm, 8, &slots);
  memset(&about, 0, sizeof about);
  about.length = 8;
  tap_ok(packbuf_i_shm_name(shm, slot, &key, &about), "a put has its generation");
  newer = put(b, "late", 8, 2);
  tap_ok(packbuf_i_shm_publish(shm, slot, &key) < newer.stat.generation, "a newer one is done before it");
  item = get(a, "late", 0);
  tap_ok(item.stat.generation == newer.stat.generation && content_is(item.lease.data, 8, 2), "the newer one stays");
  DRIVER.let_go(a->state, item.lease.token);
  tap_ok(audit_good(a, 1) && removed(a, "late", 0) == PACKBUF_OK && audit_good(a, 0), "the late one took itself away");
}

/* More old generations under lease than a key has cells. */
static void leases_of_many(handle *a, handle *b) {
  packbuf_item held[40];
  int good = 1;
  for (int i = 0; i < 40; i++) {
    good = good && put(a, "many", 100, (uint64_t)i).status == PACKBUF_OK;
    held[i] = get(b, "many", 0);
  }
  tap_ok(good && audit_of(a).cells == 1, "40 generations under lease take one cell");
  for (int i = 0; i < 40; i++) {
    good = good && content_is(held[i].lease.data, 100, (uint64_t)i);
    DRIVER.let_go(b->state, held[i].lease.token);
  }
  tap_ok(good && audit_good(a, 1) && removed(a, "many", 0) == PACKBUF_OK, "each kept its bytes");
}

/* A process that was killed before it claimed what it had in mind: what others claimed meanwhile stays theirs. */
static void units_of_others(handle *a) {
  packbuf_i_shm *shm = shm_of(a);
  packbuf_item item;
  int slots;
  uint32_t slot;
  put(a, "theirs", 10000, 7);
  item = get(a, "theirs", 0);
  slot = packbuf_i_shm_claim(shm, 100, &slots);
  packbuf_i_shm_release_units(shm, slot, 0, shm->facts.units);
  shm->slots[slot].extent = shm->slots[item.lease.token - 1].extent + 2;
  packbuf_i_shm_drop(shm, slot);
  DRIVER.let_go(a->state, item.lease.token);
  tap_ok(audit_good(a, 1) && removed(a, "theirs", 0) == PACKBUF_OK && audit_good(a, 0),
         "only what carries the slot's name is freed");
}

/* The units of an object that ended: kept by its slot, which is free; given to the next object of about that size;
 * taken by who needs room, of this handle or another; and believed only where they carry the slot's name. */
static void units_kept(handle *a, handle *b) {
  packbuf_i_shm *shm = shm_of(a);
  packbuf_item item;
  uint64_t extent;
  uint32_t slot, other;
  int slots;
  put(a, "kept", 16 * 4096, 1);
  item = get(a, "kept", 0);
  slot = (uint32_t)item.lease.token - 1;
  extent = shm->slots[slot].extent;
  DRIVER.let_go(a->state, item.lease.token);
  tap_ok(removed(a, "kept", 0) == PACKBUF_OK && shm->slots[slot].extent == extent && audit_good(a, 0),
         "kept, and free all the same");
  other = packbuf_i_shm_claim(shm, 14 * 4096 + 1, &slots);
  tap_ok(other == slot && shm->slots[slot].extent == extent - 1, "15 units of 16 for the next one, but the last");
  packbuf_i_shm_drop(shm, other);
  put(a, "kept", 16 * 4096, 1);
  (void)removed(a, "kept", 0);
  other = packbuf_i_shm_claim(shm, 4096, &slots);
  tap_ok(packbuf_i_shm_extent_units(shm->slots[other].extent) == 1 && audit_of(a).units == 1,
         "not cut up for a small one");
  packbuf_i_shm_drop(shm, other);
  put(a, "kept", 16 * 4096, 1);
  (void)removed(a, "kept", 0);
  item = put(b, "all", shm->facts.units * 4096, 2);
  tap_ok(item.status == PACKBUF_OK && removed(b, "all", 0) == PACKBUF_OK, "another handle wants all there is");
  item = put(a, "all", shm->facts.units * 4096, 3);
  tap_ok(item.status == PACKBUF_OK && removed(a, "all", 0) == PACKBUF_OK && audit_good(a, 0), "and this one");
  put(a, "kept", 16 * 4096, 1);
  item = get(a, "kept", 0);
  slot = (uint32_t)item.lease.token - 1;
  extent = shm->slots[slot].extent;
  DRIVER.let_go(a->state, item.lease.token);
  (void)removed(a, "kept", 0);
  shm->owners[packbuf_i_shm_extent_first(extent) + 3] = slot + 2; /* as if it were another's by now */
  other = packbuf_i_shm_claim(shm, 16 * 4096, &slots);
  tap_ok(other == slot && shm->slots[slot].extent != extent, "not where one carries another's name");
  packbuf_i_shm_drop(shm, other);
  shm->owners[packbuf_i_shm_extent_first(extent) + 3] = 0;
  shm->slots[slot].extent = packbuf_i_shm_extent(shm->facts.units - 1, 16);
  other = packbuf_i_shm_claim(shm, 16 * 4096, &slots);
  tap_ok(other == slot && packbuf_i_shm_extent_first(shm->slots[slot].extent) <= shm->facts.units - 16,
         "nor beyond the end");
  packbuf_i_shm_drop(shm, other);
  tap_ok(audit_good(a, 0), "all accounted for");
}

/* ---- time, room, quota, lists ---- */

static void room_by_time(handle *a, handle *b) {
  packbuf_item item = put_with(a, "brief", 5000, 1, 0, 120, 0), lease;
  lease = get(b, "brief", 0);
  tap_ok(lease.status == PACKBUF_OK && lease.stat.left_ms <= 120 && item.status == PACKBUF_OK, "found in its time");
  sleep_ms(130);
  tap_ok(get(b, "brief", 0).status == PACKBUF_NOT_FOUND, "not after it");
  tap_ok(content_is(lease.lease.data, 5000, 1), "a lease outlives it");
  DRIVER.let_go(b->state, lease.lease.token);
  tap_ok(audit_good(a, 0), "and then it is gone");
  put_with(a, "brief", 5000, 1, 0, 20, 0);
  put_with(a, "brief2", 5000, 1, 0, 20, 0);
  sleep_ms(30);
  tap_ok(audit_of(a).live == 2 && collected(a, 0), "collect drops what nobody asked for");
}

static void room_all_used(void) {
  handle a, b;
  char key[16];
  int count = 0;
  uint64_t begun;
  uint32_t freed;
  packbuf_status status = PACKBUF_OK;
  pid_t child;
  shm_fresh();
  handle_open(&a, "?size=1m&objects=256&sessions=8");
  handle_open(&b, "");
  for (; status == PACKBUF_OK && count < 1000; count += status == PACKBUF_OK) {
    snprintf(key, sizeof key, "k%d", count);
    status = put(&a, key, 10000, (uint64_t)count).status;
  }
  tap_ok(status == PACKBUF_FULL && count == 85, "put until FULL: %d of 10000 bytes in 1 MiB", count);
  freed = PACKBUF_I_LOAD(&shm_of(&a)->header->freed);
  begun = packbuf_now();
  status = put_with(&b, "more", 10000, 1, 0, 0, packbuf_deadline_in(200)).status;
  begun = packbuf_now() - begun;
  tap_ok(status == PACKBUF_FULL && begun >= 195000000 && begun < 2000000000, "with a deadline: FULL after it (%lu ms)",
         (unsigned long)(begun / 1000000));
  tap_ok(PACKBUF_I_LOAD(&shm_of(&a)->header->freed) == freed, "its tries woke nobody, itself the least");
  begun = 0;
  for (int i = 0; i < count; i++) {
    packbuf_item item;
    snprintf(key, sizeof key, "k%d", i);
    item = get(&b, key, 0);
    begun += item.status == PACKBUF_OK && content_is(item.lease.data, 10000, (uint64_t)i);
    DRIVER.let_go(b.state, item.lease.token);
  }
  tap_ok(begun == 85, "all before it are right");
  child = fork();
  if (child == 0) {
    handle c;
    sleep_ms(50);
    if (handle_open(&c, "") == PACKBUF_OK) removed(&c, "k17", 0);
    _exit(0);
  }
  begun = packbuf_now();
  status = put_with(&b, "more", 10000, 1, 0, 0, packbuf_deadline_in(5000)).status;
  tap_ok(status == PACKBUF_OK && packbuf_now() - begun < 2000000000, "another process removes one: OK after %lu ms",
         (unsigned long)((packbuf_now() - begun) / 1000000));
  waitpid(child, NULL, 0);
  tap_ok(collected(&a, 85), "all accounted for");
  handle_close(&a);
  handle_close(&b);
}

static void room_of_slots(void) {
  handle a;
  char key[16];
  int count = 0, good = 1;
  packbuf_status status = PACKBUF_OK;
  shm_fresh();
  handle_open(&a, "?size=4m&objects=64&sessions=4");
  for (; status == PACKBUF_OK && count < 1000; count += status == PACKBUF_OK) {
    snprintf(key, sizeof key, "k%d", count);
    status = put(&a, key, 10, 1).status;
  }
  tap_ok(status == PACKBUF_FULL && count == 64, "as many objects as it has slots: %d", count);
  for (int i = 0; i < 64; i++) {
    snprintf(key, sizeof key, "k%d", i);
    good = good && removed(&a, key, 0) == PACKBUF_OK;
  }
  tap_ok(good && audit_good(&a, 0), "removed again");
  handle_close(&a);
}

static void room_by_eviction(void) {
  handle a;
  packbuf_item leased, item;
  packbuf_counters counters;
  char key[16];
  int plain = 0, evicted = 0, kept = 0;
  shm_fresh();
  handle_open(&a, "?size=1m&objects=256&sessions=8");
  for (int i = 0; i < 64; i++) {
    snprintf(key, sizeof key, "k%d", i);
    put_with(&a, key, 16384, (uint64_t)i, i % 4 ? PACKBUF_PUT_EVICTABLE : 0, 0, 0);
  }
  leased = get(&a, "k1", 0);
  for (int i = 2; i < 12; i++) { /* read lately */
    snprintf(key, sizeof key, "k%d", i);
    item = get(&a, key, 0);
    DRIVER.let_go(a.state, item.lease.token);
  }
  for (int i = 0; i < 20; i++) {
    snprintf(key, sizeof key, "new%d", i);
    kept += put(&a, key, 16384, 1000).status == PACKBUF_OK;
  }
  tap_ok(kept == 20, "room is made for 20 more");
  for (int i = 0; i < 64; i++) {
    const int there = (snprintf(key, sizeof key, "k%d", i), one(&a, PACKBUF_STAT, key, 0, 0).status == PACKBUF_OK);
    plain += i % 4 == 0 && there;
    evicted += i % 4 && i >= 12 && !there;
    kept += i % 4 && i < 12 && there;
  }
  memset(&counters, 0, sizeof counters);
  DRIVER.count(a.state, &counters);
  tap_ok(plain == 16 && kept == 29 && evicted == 20 && counters.evicted == 20,
         "the least recently read went; plain, leased and read ones stay (%d, %d, %d)", plain, kept - 20, evicted);
  tap_ok(content_is(leased.lease.data, 16384, 1), "the leased one is whole");
  DRIVER.let_go(a.state, leased.lease.token);
  tap_ok(collected(&a, 64), "all accounted for");
  handle_close(&a);
}

static void room_by_quota(void) {
  handle a, b;
  shm_fresh();
  handle_open(&a, SMALL "&quota=64k");
  handle_open(&b, "");
  tap_ok(put(&a, "1", 40000, 1).status == PACKBUF_OK && put(&a, "2", 40000, 1).status == PACKBUF_QUOTA, "QUOTA");
  tap_ok(put(&b, "2", 40000, 1).status == PACKBUF_OK, "of this handle alone");
  tap_ok(removed(&b, "1", 0) == PACKBUF_OK && put(&a, "3", 40000, 1).status == PACKBUF_OK, "a removal gives it back");
  tap_ok(put_with(&a, "4", 40000, 1, 0, 0, packbuf_deadline_in(60)).status == PACKBUF_QUOTA, "QUOTA at a deadline");
  tap_ok(put(&a, "4", 70000, 1).status == PACKBUF_QUOTA, "more than the quota");
  handle_close(&a);
  handle_close(&b);
}

static void room_listed(handle *a) {
  static packbuf_listed listed[7];
  uint64_t cursor = 0, count, seen = 0, pages = 0, right = 0;
  char key[32];
  for (int i = 0; i < 50; i++) {
    snprintf(key, sizeof key, "%s/%d", i % 2 ? "odd" : "even", i);
    put(a, key, (uint64_t)i, 1);
  }
  do {
    tap_ok(DRIVER.list(a->state, "odd/", &cursor, listed, 7, &count, 0, NULL) == PACKBUF_OK, "a page of %lu",
           (unsigned long)count);
    for (uint64_t i = 0; i < count; i++)
      right += strncmp(listed[i].key, "odd/", 4) == 0 && listed[i].stat.length == (uint64_t)atoi(listed[i].key + 4) &&
               listed[i].stat.leases == 0;
    seen += count;
    put(a, "odd/1", 1, 1);
    if (pages == 0) put(a, "between", 1, 1);
  } while (cursor && ++pages < 20);
  tap_ok(right == seen && seen >= 24, "those of the prefix, each once (%lu)", (unsigned long)seen);
  cursor = 0;
  for (seen = 0, pages = 0; (pages == 0 || cursor) && pages < 20; pages++) {
    DRIVER.list(a->state, NULL, &cursor, listed, 7, &count, 0, NULL);
    seen += count;
    for (uint64_t i = 0; i < count; i++) right += removed(a, listed[i].key, 0) == PACKBUF_OK;
  }
  tap_ok(seen == 51 && audit_good(a, 0), "all, removed as they were listed (%lu)", (unsigned long)seen);
}

static void closed_and_opened(void) {
  handle a;
  packbuf_item first, second, item;
  shm_fresh();
  handle_open(&a, SMALL);
  first = put(&a, "stays", 3000, 5);
  handle_close(&a);
  tap_ok(handle_open(&a, "?must_exist=1") == PACKBUF_OK, "opened again");
  item = get(&a, "stays", first.stat.generation);
  tap_ok(item.status == PACKBUF_OK && content_is(item.lease.data, 3000, 5), "what was put is there");
  DRIVER.let_go(a.state, item.lease.token);
  second = put(&a, "stays", 3000, 6);
  tap_ok(second.stat.generation > first.stat.generation, "generations go on");
  PACKBUF_I_STORE(&shm_of(&a)->header->closed, 1u);
  tap_ok(get(&a, "stays", 0).status == PACKBUF_DISCONNECTED && put(&a, "x", 1, 1).status == PACKBUF_DISCONNECTED &&
             DRIVER.collect(a.state, 0, NULL, NULL) == PACKBUF_DISCONNECTED,
         "taken away: DISCONNECTED");
  handle_close(&a);
  tap_ok(handle_open(&a, "") == PACKBUF_DISCONNECTED, "nor can it be opened");
  shm_fresh();
  handle_open(&a, SMALL);
  item = put(&a, "stays", 1, 1);
  tap_ok(item.stat.generation > second.stat.generation, "a new store's generations are larger");
  item = put_with(&a, "late", 1, 1, 0, 0, 1);
  tap_ok(item.status == PACKBUF_TIMEOUT && get(&a, "late", 0).status == PACKBUF_NOT_FOUND,
         "a deadline that was: TIMEOUT");
  handle_close(&a);
  handle_open(&a, "?read_only=1");
  tap_ok(put(&a, "x", 1, 1).status == PACKBUF_READ_ONLY && removed(&a, "stays", 0) == PACKBUF_READ_ONLY &&
             one(&a, PACKBUF_STAT, "stays", 0, 0).status == PACKBUF_OK,
         "read_only: READ_ONLY");
  handle_close(&a);
}

static void sessions_all_used(void) {
  handle h[5];
  int i;
  shm_fresh();
  for (i = 0; i < 4; i++) handle_open(&h[i], "?size=1m&objects=64&sessions=4");
  tap_ok(handle_open(&h[4], "") == PACKBUF_FULL, "one session too many: FULL");
  handle_close(&h[2]);
  tap_ok(handle_open(&h[4], "") == PACKBUF_OK && shm_of(&h[4])->session == 2, "one ends: another begins");
  for (i = 0; i < 5; i++)
    if (i != 2) handle_close(&h[i]);
}

/* ---- processes ---- */

/* A process that does something with a handle of its own, says so, and sleeps until it is killed. */
static pid_t started(void (*work)(handle *h)) {
  int pipes[2];
  char byte;
  pid_t child;
  if (pipe(pipes) != 0) abort();
  child = fork();
  if (child == 0) {
    handle h;
    close(pipes[0]);
    if (handle_open(&h, "") != PACKBUF_OK) _exit(1);
    work(&h);
    if (write(pipes[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  close(pipes[1]);
  if (read(pipes[0], &byte, 1) != 1) tap_ok(0, "a process could not do its work");
  close(pipes[0]);
  return child;
}

static void ended(pid_t child) {
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
}

static void writes_half(handle *h) {
  uint64_t size = 500000, token;
  void *data;
  if (DRIVER.reserve(h->state, &size, 1, 0, &data, &token, NULL) != PACKBUF_OK) _exit(1);
  memset(data, 1, (size_t)size / 2);
}

static void reads_and_holds(handle *h) {
  packbuf_item item = get(h, "read", 0);
  if (item.status != PACKBUF_OK) _exit(1);
}

static int told; /* lines of the log that name the dead */
static void count_lines(void *context, packbuf_log_level level, const char *text) {
  (void)context;
  told += level == PACKBUF_LOG_INFO && strstr(text, "took back 1 slots and leases of test") != NULL;
}

static void killed_and_stopped(void) {
  handle a, b;
  pid_t child;
  packbuf_status status;
  packbuf_store_options options;
  memset(&options, 0, sizeof options);
  options.log = count_lines;
  told = 0;
  shm_fresh();
  handle_open_with(&a, "?size=1m&objects=64&sessions=8", options);
  put(&a, "read", 300000, 42);
  child = started(writes_half);
  tap_ok(audit_of(&a).other == 1 && put(&a, "wide", 400000, 1).status == PACKBUF_FULL, "a writer holds its room");
  kill(child, SIGSTOP);
  tap_ok(put(&a, "read", 100000, 43).status == PACKBUF_OK, "stopped, it keeps nobody from anything else");
  ended(child);
  tap_ok(put(&a, "wide", 400000, 1).status == PACKBUF_OK, "killed: the next one who wants room has it");
  tap_ok(removed(&a, "wide", 0) == PACKBUF_OK && collected(&a, 1), "nothing of it is left");
  put(&a, "read", 600000, 44);
  child = started(reads_and_holds);
  kill(child, SIGSTOP);
  status = removed(&a, "read", packbuf_deadline_in(60));
  tap_ok(status == PACKBUF_LEASED && get(&a, "read", 0).status == PACKBUF_NOT_FOUND, "a stopped reader: LEASED");
  status = put_with(&a, "wide", 600000, 1, 0, 0, packbuf_deadline_in(60)).status;
  tap_ok(status == PACKBUF_FULL, "its memory stays its own");
  ended(child);
  tap_ok(put(&a, "wide", 600000, 1).status == PACKBUF_OK, "killed: its memory is back");
  put(&a, "read", 1000, 44);
  child = started(reads_and_holds);
  ended(child);
  tap_ok(removed(&a, "read", 0) == PACKBUF_OK, "leases of the dead do not count");
  removed(&a, "wide", 0);
  child = started(writes_half);
  ended(child);
  tap_ok(audit_of(&a).other == 1 && handle_open(&b, "") == PACKBUF_OK && shm_of(&b)->session == 1 && audit_good(&a, 0),
         "who takes over a dead one's session clears up");
  tap_ok(told == 3, "the log names the dead: %d times", told);
  handle_close(&a);
  handle_close(&b);
}

/* A consumer's mapping cannot be written. */
static void writes_a_lease(void) {
  handle a;
  pid_t child;
  int status = 0;
  shm_fresh();
  handle_open(&a, SMALL);
  put(&a, "read", 100, 1);
  child = fork();
  if (child == 0) {
    handle h;
    packbuf_item item;
    signal(SIGSEGV, SIG_DFL);
    if (handle_open(&h, "") != PACKBUF_OK) _exit(1);
    item = get(&h, "read", 0);
    *(volatile uint8_t *)(uintptr_t)item.lease.data = 1;
    _exit(0);
  }
  waitpid(child, &status, 0);
  tap_ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "who writes to a lease dies");
  tap_ok(collected(&a, 1), "and its lease with it");
  handle_close(&a);
}

/* In a child after fork close frees memory alone. */
static void forked(void) {
  handle a;
  packbuf_item item;
  pid_t child;
  int status;
  shm_fresh();
  handle_open(&a, SMALL);
  put(&a, "k", 5000, 9);
  item = get(&a, "k", 0);
  child = fork();
  if (child == 0) {
    handle_close(&a);
    _exit(0);
  }
  waitpid(child, &status, 0);
  tap_ok(removed(&a, "k", 0) == PACKBUF_LEASED && content_is(item.lease.data, 5000, 9),
         "the parent's lease is still one");
  DRIVER.let_go(a.state, item.lease.token);
  tap_ok(audit_good(&a, 0) && PACKBUF_I_LOAD(&shm_of(&a)->sessions[shm_of(&a)->session].used), "and so is its session");
  handle_close(&a);
}

/* One puts seed after seed, another sees them whole and never an older one after a newer one. */
static void one_puts_one_gets(int with_lease) {
  handle a;
  pid_t child;
  uint64_t last = 0, torn = 0, back = 0, gets = 0, missing = 0;
  uint8_t *into = (uint8_t *)malloc(300000);
  int status;
  shm_fresh();
  handle_open(&a, "?size=8m&objects=64&sessions=8");
  put(&a, "k", 8, 0);
  child = fork();
  if (child == 0) {
    handle h;
    if (handle_open(&h, "") != PACKBUF_OK) _exit(1);
    for (uint64_t i = 1; i <= 2000; i++)
      if (put_with(&h, "k", 8 + i * 8 % 250000, i, 0, 0, PACKBUF_FOREVER).status != PACKBUF_OK) _exit(2);
    _exit(0);
  }
  for (; into && last < 2000; gets++) {
    packbuf_item item = item_of("k");
    if (!with_lease) item.into = into, item.capacity = 300000;
    handle_run(&a, PACKBUF_GET, &item, 1, 0);
    if (item.status != PACKBUF_OK) {
      missing++;
      if (waitpid(child, &status, WNOHANG) == child) break;
    } else {
      const void *bytes = with_lease ? item.lease.data : into;
      const uint64_t seed = content_seed(bytes);
      torn += !content_is(bytes, item.got, seed) || item.got != 8 + seed * 8 % 250000;
      back += seed < last;
      last = seed;
      if (with_lease) DRIVER.let_go(a.state, item.lease.token);
    }
  }
  waitpid(child, &status, 0);
  tap_ok(last == 2000 && !torn && !back && !missing,
         "2000 generations, %lu gets %s: torn %lu, backwards %lu, missing %lu", (unsigned long)gets,
         with_lease ? "in place" : "by copy", (unsigned long)torn, (unsigned long)back, (unsigned long)missing);
  tap_ok(collected(&a, 1), "one is left");
  free(into);
  handle_close(&a);
}

/* A key that is put all the time, as small as can be, is never missing, and never goes back. */
static void always_there(void) {
  handle a, own;
  pid_t child;
  uint64_t last = 0, back = 0, gets = 0, missing = 0;
  shm_fresh();
  handle_open(&a, "?size=1m&objects=64&sessions=8");
  put(&a, "k", 8, 1);
  child = fork();
  if (child == 0) {
    uint64_t seed = 1;
    packbuf_item item = item_of("k");
    item.from = &seed;
    item.size = 8;
    if (handle_open(&own, "") != PACKBUF_OK) _exit(1);
    for (;; seed++) handle_run(&own, PACKBUF_PUT, &item, 1, PACKBUF_NO_WAIT);
  }
  for (uint64_t until = packbuf_now() + 1500000000; packbuf_now() < until; gets++) {
    packbuf_item item = get(&a, "k", 0);
    missing += item.status != PACKBUF_OK;
    if (item.status != PACKBUF_OK) continue;
    back += item.stat.generation < last;
    last = item.stat.generation;
    DRIVER.let_go(a.state, item.lease.token);
  }
  ended(child);
  tap_ok(!back && !missing, "%lu gets of what is put all the time: backwards %lu, missing %lu", (unsigned long)gets,
         (unsigned long)back, (unsigned long)missing);
  tap_ok(collected(&a, 1), "one is left");
  handle_close(&a);
}

/* Two processes put one key. */
static void two_put(void) {
  handle a;
  packbuf_item item;
  uint64_t seed;
  shm_fresh();
  handle_open(&a, "?size=4m&objects=64&sessions=8");
  for (uint64_t who = 1; who <= 2; who++)
    if (fork() == 0) {
      handle h;
      uint64_t last = 0;
      if (handle_open(&h, "") != PACKBUF_OK) _exit(1);
      for (int i = 0; i < 500; i++) {
        packbuf_item p = put_with(&h, "k", 5000 * who, who, 0, 0, PACKBUF_FOREVER);
        if (p.status != PACKBUF_OK || p.stat.generation <= last) _exit(2);
        last = p.stat.generation;
      }
      _exit(0);
    }
  for (int i = 0; i < 2; i++) {
    int status = 1;
    wait(&status);
    tap_ok(status == 0, "500 puts, ascending");
  }
  item = get(&a, "k", 0);
  seed = item.status == PACKBUF_OK ? content_seed(item.lease.data) : 0;
  tap_ok((seed == 1 || seed == 2) && item.got == 5000 * seed && content_is(item.lease.data, item.got, seed),
         "one of the two, whole");
  DRIVER.let_go(a.state, item.lease.token);
  tap_ok(audit_good(&a, 1), "and no other, without a sweep");
  handle_close(&a);
}

/* ---- random operations: of threads, and of processes that are killed and stopped ---- */

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state * 0x2545F4914F6CDD1Du;
}

/* Puts, gets, holds, removes. Returns how many objects were torn. */
static uint64_t random_work(handle *h, uint64_t seed, uint64_t operations) {
  packbuf_item held[16];
  uint64_t torn = 0;
  int count = 0;
  char key[16];
  for (uint64_t i = 0; i < operations; i++) {
    const uint64_t r = next_random(&seed);
    snprintf(key, sizeof key, "k%d", (int)(r % 16));
    if (r >> 32 & 4) {
      packbuf_item item = get(h, key, 0);
      if (item.status != PACKBUF_OK) continue;
      torn += !content_is(item.lease.data, item.lease.size, content_seed(item.lease.data));
      if (r >> 40 & 3 || count == 16) DRIVER.let_go(h->state, item.lease.token);
      else held[count++] = item;
    } else if ((r >> 32 & 3) == 3) {
      if (r >> 44 & 1) (void)removed(h, key, PACKBUF_NO_WAIT);
      while (count) {
        const packbuf_item *item = &held[--count];
        torn += !content_is(item->lease.data, item->lease.size, content_seed(item->lease.data));
        DRIVER.let_go(h->state, item->lease.token);
      }
    } else {
      const uint64_t size = 1024 * (1 + (r >> 40) % 12) * (r >> 52 & 15 ? 1 : 16);
      const packbuf_status status = put(h, key, size, r).status;
      torn += status != PACKBUF_OK && status != PACKBUF_FULL;
    }
  }
  while (count) DRIVER.let_go(h->state, held[--count].lease.token);
  return torn;
}

typedef struct thread_work {
  handle *h, own;
  uint64_t seed, torn;
  pthread_t thread;
} thread_work;

static void *thread_run(void *context) {
  thread_work *work = (thread_work *)context;
  work->own = *work->h; /* `done` is not shared */
  work->torn = random_work(&work->own, work->seed, 2000 / TAP_STEP);
  return NULL;
}

static void threads_together(void) {
  handle a;
  static thread_work works[8];
  uint64_t torn = 0;
  shm_fresh();
  handle_open(&a, "?size=4m&objects=256&sessions=8");
  for (int i = 0; i < 8; i++) {
    works[i].h = &a;
    works[i].seed = (uint64_t)i * 0x9E3779B97F4A7C15u + 88172645463325252u;
    if (pthread_create(&works[i].thread, NULL, thread_run, &works[i]) != 0) abort();
  }
  for (int i = 0; i < 8; i++) {
    pthread_join(works[i].thread, NULL);
    torn += works[i].torn;
  }
  tap_ok(!torn, "8 threads of one handle: torn %lu", (unsigned long)torn);
  DRIVER.collect(a.state, 0, NULL, NULL);
  tap_ok(audit_good(&a, audit_of(&a).live), "all accounted for");
  handle_close(&a);
}

/* A thread that takes and gives back one unit as a slot of its own would: who claims a run around it loses it again and
 * again after it has claimed those before it. */
static volatile int stop;
static void *units_run(void *context) {
  thread_work *work = (thread_work *)context;
  uint32_t *owner = &shm_of(work->h)->owners[20];
  while (!PACKBUF_I_LOAD(&stop)) {
    uint32_t mine = 64, none = 0;
    if (!PACKBUF_I_EXCHANGE(owner, &none, mine)) continue;
    for (volatile int i = 0; i < 50; i++) continue;
    work->torn += !PACKBUF_I_EXCHANGE(owner, &mine, 0u); /* somebody else freed it */
  }
  return NULL;
}

static void units_contended(void) {
  handle a;
  static thread_work work;
  packbuf_i_shm *shm;
  uint64_t got = 0, lost = 0;
  shm_fresh();
  handle_open(&a, "?size=128k&objects=64&sessions=4");
  shm = shm_of(&a);
  shm->slots[63].extent = packbuf_i_shm_extent(20, 1);
  shm->words[63] = packbuf_i_shm_word(0, shm->session, PACKBUF_I_SHM_CLAIMED);
  work.h = &a;
  if (pthread_create(&work.thread, NULL, units_run, &work) != 0) abort();
  for (uint64_t until = packbuf_now() + 500000000; packbuf_now() < until;) {
    int slots;
    uint32_t slot;
    uint64_t units = 0;
    __atomic_store_n(&shm->next_unit, 0, __ATOMIC_RELAXED);
    slot = packbuf_i_shm_claim(shm, 4096 * 24, &slots);
    for (uint64_t u = 0; u < 32; u++) units += u != 20 && PACKBUF_I_LOAD(&shm->owners[u]) == slot + 1;
    if (slot != PACKBUF_I_SHM_NONE) got++, packbuf_i_shm_drop(shm, slot);
    lost += slot != PACKBUF_I_SHM_NONE && units != 23;
  }
  PACKBUF_I_STORE(&stop, 1);
  pthread_join(work.thread, NULL);
  shm->slots[63].extent = shm->words[63] = 0;
  tap_ok(got && !lost && !work.torn && audit_good(&a, 0), "a unit in the way comes and goes: %lu runs, none wrong",
         (unsigned long)got);
  handle_close(&a);
}

static pid_t random_worker(uint64_t seed, volatile uint64_t *torn) {
  const pid_t child = fork();
  if (child == 0) {
    handle h;
    if (handle_open(&h, "") != PACKBUF_OK) _exit(1);
    for (;;) {
      const uint64_t some = random_work(&h, seed++ | 1, 200);
      if (some) __atomic_fetch_add(torn, some, __ATOMIC_SEQ_CST);
    }
  }
  return child;
}

static void killed_at_random(int kills) {
  handle a;
  pid_t children[3];
  uint64_t random = packbuf_now() | 1, lost = 0;
  volatile uint64_t *torn =
      (volatile uint64_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  tap_note("kills from seed %lu", (unsigned long)random);
  shm_fresh();
  handle_open(&a, "?size=2m&objects=256&sessions=8");
  put(&a, "stay", 4096, 4);
  for (int i = 0; i < 3; i++) children[i] = random_worker(next_random(&random), torn);
  for (int n = 0; n < kills; n++) {
    const int i = (int)(next_random(&random) % 3);
    packbuf_i_sleep_until(packbuf_now() + 500000 + next_random(&random) % 4000000);
    if (next_random(&random) % 8 == 0) {
      kill(children[i], SIGSTOP);
      sleep_ms(2);
    }
    ended(children[i]);
    children[i] = random_worker(next_random(&random), torn);
    lost += one(&a, PACKBUF_STAT, "stay", 0, 0).status != PACKBUF_OK;
  }
  for (int i = 0; i < 3; i++) ended(children[i]);
  DRIVER.collect(a.state, 0, NULL, NULL);
  tap_ok(!*torn && !lost && audit_of(&a).live <= 17, "%d kills: torn %lu, lost %lu", kills, (unsigned long)*torn,
         (unsigned long)lost);
  tap_ok(audit_good(&a, audit_of(&a).live), "all accounted for");
  munmap((void *)(uintptr_t)torn, 4096);
  handle_close(&a);
}

/* ---- looking after it ---- */

static int audit_is(handle *h, const packbuf_audit *want) {
  packbuf_audit got;
  memset(&got, 0, sizeof got);
  if (DRIVER.keeper->audit(h->state, &got, &h->error) != PACKBUF_OK) return 0;
  return memcmp(&got, want, sizeof got) == 0;
}

/* A store of 1 MiB in which k, of 13 units, is removed under a lease of b; "stays" is there, a has reserved 8 units,
 * and a third handle died with a lease of "stays". */
static void sessions_listed(handle *a, handle *b) {
  packbuf_session sessions[8];
  packbuf_held held[8];
  packbuf_audit want;
  uint64_t size = 30000, token, cursor = 0, count = 0, all = 0, rows[4] = {0};
  void *data;
  pid_t child;
  packbuf_item lease;
  put(a, "k", 50000, 1);
  put(a, "read", 5000, 2);
  lease = get(b, "k", 0);
  (void)removed(a, "k", PACKBUF_NO_WAIT);
  (void)DRIVER.reserve(a->state, &size, 1, 0, &data, &token, NULL);
  child = started(reads_and_holds);
  memcpy(shm_of(a)->sessions[2].name, "bad\x1b[2Jname", 12);
  ended(child);
  do {
    count = 0;
    tap_ok(DRIVER.keeper->sessions(a->state, &cursor, sessions + all, 2, &count, NULL) == PACKBUF_OK, "a page of %lu",
           (unsigned long)count);
    all += count;
  } while (cursor && all < 7);
  tap_ok(all == 3 && sessions[0].own && sessions[0].alive && !sessions[1].own && sessions[1].alive &&
             !sessions[2].alive && strcmp(sessions[0].name, "test") == 0 && sessions[0].process == (uint32_t)getpid(),
         "three sessions, of which one is dead");
  tap_ok(strcmp(sessions[2].name, "bad?[2Jname") == 0, "what is no text in a name is not shown: %s", sessions[2].name);
  tap_ok(sessions[0].slices == 1 && sessions[0].slice_bytes == 32768 && sessions[0].leases == 0 &&
             sessions[1].leases == 1 && sessions[1].leased_bytes == 53248 && sessions[2].leases == 1 &&
             sessions[0].idle_ms <= sessions[0].age_ms,
         "what each holds");
  for (all = 0, count = 0; all < 8; all += count) {
    count = 0;
    if (DRIVER.keeper->held(a->state, &cursor, held + all, 1, &count, NULL) != PACKBUF_OK || !cursor) break;
  }
  all += count;
  for (uint64_t i = 0; i < all; i++) {
    const packbuf_held *h = &held[i];
    rows[0] += h->session == 0 && h->kind == PACKBUF_HELD_SLICE && h->object.stat.length == 32768 && !h->object.key[0];
    rows[1] += h->session == 1 && h->kind == PACKBUF_HELD_REMOVED && strcmp(h->object.key, "k") == 0 &&
               h->object.stat.length == 50000 && h->object.stat.generation == lease.stat.generation;
    rows[2] += h->session == 2 && h->kind == PACKBUF_HELD_LEASE && strcmp(h->object.key, "read") == 0;
  }
  tap_ok(all == 3 && rows[0] == 1 && rows[1] == 1 && rows[2] == 1, "each thing held, by whom (%lu)",
         (unsigned long)all);
  memset(&want, 0, sizeof want);
  want.objects = 1, want.object_bytes = 8192, want.removed = 1, want.removed_bytes = 53248, want.filling = 1;
  want.filling_bytes = 32768, want.free_bytes = (1 << 20) - 8192 - 53248 - 32768, want.free_runs = 1, want.dead = 1;
  want.largest_free = want.free_bytes;
  tap_ok(audit_is(a, &want) && audit_is(b, &want), "every byte accounted for");
  DRIVER.let_go(b->state, lease.lease.token);
  DRIVER.give_back(a->state, token);
  (void)DRIVER.collect(a->state, 0, NULL, NULL);
  want.removed = want.removed_bytes = want.filling = want.filling_bytes = want.dead = 0;
  want.free_bytes = (1 << 20) - 8192, want.largest_free = (1 << 20) - 8192 - 53248, want.free_runs = 2;
  tap_ok(audit_is(a, &want), "given back and collected");
  (void)removed(a, "read", 0);
}

/* Each rule of the tables, broken: the audit says which. */
static void tables_audited(handle *a) {
  packbuf_i_shm *shm = shm_of(a);
  packbuf_audit fine, want;
  packbuf_item item;
  uint64_t word, cell = 0, at = 0;
  uint32_t slot, unit, owner;
  put(a, "k", 5000, 1);
  item = get(a, "k", 0);
  slot = (uint32_t)item.lease.token - 1;
  DRIVER.let_go(a->state, item.lease.token);
  memset(&fine, 0, sizeof fine);
  tap_ok(DRIVER.keeper->audit(a->state, &fine, NULL) == PACKBUF_OK && fine.objects == 1 && !fine.lost_bytes,
         "one object");
  unit = (uint32_t)packbuf_i_shm_extent_first(shm->slots[slot].extent);
  shm->owners[unit + 2] = slot + 1;
  want = fine;
  want.lost_bytes = 4096, want.free_bytes -= 4096, want.largest_free -= 4096;
  tap_ok(audit_is(a, &want), "a unit beyond its owner's extent is lost");
  shm->owners[unit + 2] = 0;
  owner = shm->owners[unit];
  shm->owners[unit] = slot + 2;
  want = fine;
  want.lost_bytes = want.shared_bytes = 4096;
  tap_ok(audit_is(a, &want), "one of another's name is lost, and not the object's own");
  shm->owners[unit] = owner;
  for (uint64_t i = 0; i < (uint64_t)shm->facts.slots * 4; i++)
    if ((uint32_t)shm->cells[i] == slot + 1) at = i;
  cell = shm->cells[at];
  shm->cells[at] = 0;
  want = fine;
  want.hidden = 1;
  tap_ok(audit_is(a, &want), "an object without a cell is hidden");
  shm->cells[at] = cell ^ (uint64_t)1 << 40;
  want.lost_cells = 1;
  tap_ok(audit_is(a, &want), "and a cell of another hash names nothing");
  shm->cells[at] = (cell & 0xFFFFFFFF00000000u) | (slot + 2);
  tap_ok(audit_is(a, &want), "nor does one of a free slot");
  shm->cells[at] = cell;
  *packbuf_i_shm_pin_word(shm, slot, 5) |= (uint64_t)1 << 5;
  want = fine;
  want.lost_pins = 1;
  tap_ok(audit_is(a, &want), "a lease of no session");
  *packbuf_i_shm_pin_word(shm, slot, 5) = 0;
  word = shm->words[slot + 1];
  shm->words[slot + 1] = packbuf_i_shm_word(word, 5, PACKBUF_I_SHM_CLAIMED);
  want = fine;
  want.lost_slots = want.filling = 1;
  tap_ok(audit_is(a, &want), "a slot of no session");
  shm->words[slot + 1] = packbuf_i_shm_word(word, 0, 77);
  want.filling = 0;
  tap_ok(audit_is(a, &want), "a slot in no state");
  shm->words[slot + 1] = word;
  tap_ok(audit_is(a, &fine) && removed(a, "k", 0) == PACKBUF_OK && audit_good(a, 0), "put right again");
}

/* Every slot says that it is an object of all there is, and of more: the audit ends, and says so. */
static void endless_extents_audited(handle *a) {
  packbuf_i_shm *shm = shm_of(a);
  const uint64_t slots = shm->facts.slots, units = UINT32_MAX;
  uint64_t *words = (uint64_t *)malloc(2 * (size_t)slots * sizeof *words), *extents = words + slots;
  packbuf_audit found;
  memset(&found, 0, sizeof found);
  for (uint64_t i = 0; i < slots; i++) {
    words[i] = shm->words[i], extents[i] = shm->slots[i].extent;
    shm->words[i] = packbuf_i_shm_word(words[i], 0, PACKBUF_I_SHM_LIVE);
    shm->slots[i].extent = packbuf_i_shm_extent(0, units);
  }
  tap_ok(DRIVER.keeper->audit(a->state, &found, NULL) == PACKBUF_OK && found.objects == slots &&
             slots * units * 4096 - found.shared_bytes <= shm->facts.units * 4096, /* some have kept units */
         "extents without an end");
  for (uint64_t i = 0; i < slots; i++) shm->words[i] = words[i], shm->slots[i].extent = extents[i];
  free(words);
  tap_ok(audit_good(a, 0), "put right again");
}

static void taken_away(handle *a, handle *b) {
  char path[128];
  packbuf_item lease;
  packbuf_store *reader = NULL;
  packbuf_session session;
  uint64_t cursor = 0, count = 0;
  packbuf_store_options options = packbuf_default_store_options();
  char uri[96];
  handle c;
  snprintf(path, sizeof path, "/dev/shm/packbuf.%s", shm_name);
  snprintf(uri, sizeof uri, "shm:%s", shm_name);
  options.read_only = 1;
  tap_ok(packbuf_store_open(uri, &options, &reader, NULL) == PACKBUF_OK &&
             packbuf_store_free(reader, 1, NULL) == PACKBUF_READ_ONLY &&
             packbuf_store_close(reader, PACKBUF_NO_WAIT, NULL) == PACKBUF_OK,
         "who only reads takes nothing away");
  put(a, "k", 50000, 7);
  lease = get(b, "k", 0);
  tap_ok(DRIVER.keeper->take_away(a->state, 0, &a->error) == PACKBUF_LEASED && access(path, F_OK) == 0 &&
             get(b, "k", 0).status == PACKBUF_OK,
         "others have it open: LEASED, and nothing happens");
  DRIVER.let_go(b->state, lease.lease.token);
  tap_ok(handle_open(&c, "") == PACKBUF_OK && shm_of(&c)->session == 2, "its locks are free again");
  handle_close(&c);
  tap_ok(DRIVER.keeper->take_away(a->state, 1, &a->error) == PACKBUF_OK && access(path, F_OK) != 0, "forced: gone");
  tap_ok(get(b, "k", 0).status == PACKBUF_DISCONNECTED && put(a, "k", 1, 1).status == PACKBUF_DISCONNECTED &&
             DRIVER.keeper->take_away(a->state, 1, &a->error) == PACKBUF_DISCONNECTED &&
             DRIVER.keeper->sessions(b->state, &cursor, &session, 1, &count, NULL) == PACKBUF_DISCONNECTED,
         "for everyone: DISCONNECTED");
  tap_ok(content_is(lease.lease.data, 50000, 7), "what is leased stays");
  tap_ok(handle_open(&c, "?size=1m") == PACKBUF_OK && get(&c, "k", 0).status == PACKBUF_NOT_FOUND, "the name is free");
  PACKBUF_I_STORE(&shm_of(a)->header->closed, 0u);
  tap_ok(DRIVER.keeper->take_away(a->state, 1, &a->error) == PACKBUF_OK && access(path, F_OK) == 0 &&
             get(&c, "k", 0).status == PACKBUF_NOT_FOUND,
         "another store of its name is left alone");
  tap_ok(DRIVER.keeper->take_away(c.state, 0, &c.error) == PACKBUF_OK && access(path, F_OK) != 0,
         "alone: gone unforced");
  handle_close(&c);
}

static void looked_after(void) {
  handle a, b;
  shm_fresh();
  if (!tap_ok(handle_open(&a, "?size=1m&objects=64&sessions=70") == PACKBUF_OK && handle_open(&b, "") == PACKBUF_OK,
              "two handles"))
    return;
  sessions_listed(&a, &b);
  tables_audited(&a);
  endless_extents_audited(&a);
  taken_away(&a, &b);
  handle_close(&b);
  handle_close(&a);
}

/* ---- damaged tables ---- */

static void tables_damaged(void) {
  handle a;
  packbuf_i_shm *shm;
  packbuf_item item;
  packbuf_listed listed;
  uint32_t slot;
  uint64_t cursor = 0, count, extent;
  shm_fresh();
  handle_open(&a, SMALL);
  shm = shm_of(&a);
  put(&a, "k", 5000, 1);
  item = get(&a, "k", 0);
  slot = (uint32_t)item.lease.token - 1;
  DRIVER.let_go(a.state, item.lease.token);
  extent = shm->slots[slot].extent;
  shm->slots[slot].extent = packbuf_i_shm_extent(shm->facts.units - 1, 2);
  tap_ok(get(&a, "k", 0).status == PACKBUF_PROTOCOL, "an extent past the end: PROTOCOL");
  shm->slots[slot].extent = packbuf_i_shm_extent(0xFFFFFFFFu, 0xFFFFFFFFu);
  tap_ok(get(&a, "k", 0).status == PACKBUF_PROTOCOL, "and far past it");
  shm->slots[slot].extent = extent;
  shm->slots[slot].length = 8193;
  tap_ok(get(&a, "k", 0).status == PACKBUF_PROTOCOL, "a length beyond the extent: PROTOCOL");
  shm->slots[slot].length = 5000;
  for (uint64_t i = 0; i < (uint64_t)shm->facts.slots * 4; i++)
    if ((uint32_t)shm->cells[i] == slot + 1) shm->cells[i] = (shm->cells[i] & 0xFFFFFFFF00000000u) | 0x7FFFFFFF;
  tap_ok(get(&a, "k", 0).status == PACKBUF_PROTOCOL, "a cell of no slot: PROTOCOL");
  shm->slots[slot].key_size = 255;
  tap_ok(DRIVER.list(a.state, NULL, &cursor, &listed, 1, &count, 0, NULL) == PACKBUF_OK, "a wrong key size: survived");
  shm->slots[slot].extent = packbuf_i_shm_extent(5, 0xFFFFFFFFu);
  for (uint32_t i = 0; i < 1024; i++) shm->owners[i] = 0xFFFFFFF0u;
  (void)put(&a, "k", 5000, 1);
  shm->words[slot] = packbuf_i_shm_word(0, shm->session, PACKBUF_I_SHM_CLAIMED);
  handle_close(&a);
  tap_ok(1, "and survived");
}

int main(int argc, char **argv) {
  handle a, b;
  atexit(shm_away);
  file_of_wrong_numbers();
  file_of_wrong_length();
  file_asked_for();
  file_made_by_many(0);
  file_made_by_many(1);
  file_draft_left();
  shm_fresh();
  if (!tap_ok(handle_open(&a, SMALL) == PACKBUF_OK && handle_open(&b, "") == PACKBUF_OK, "two handles"))
    return tap_plan_done();
  objects_whole(&a, &b);
  objects_named(&a, &b);
  objects_in_ranges(&a);
  objects_in_slices(&a, &b);
  objects_in_batches(&a, &b);
  leases_hold(&a, &b);
  leases_twice(&a, &b);
  overtaken(&a, &b);
  leases_of_many(&a, &b);
  units_of_others(&a);
  units_kept(&a, &b);
  room_by_time(&a, &b);
  room_listed(&a);
  handle_close(&a);
  handle_close(&b);
  room_all_used();
  room_of_slots();
  room_by_eviction();
  room_by_quota();
  closed_and_opened();
  sessions_all_used();
  killed_and_stopped();
  writes_a_lease();
  forked();
  one_puts_one_gets(0);
  one_puts_one_gets(1);
  always_there();
  two_put();
  threads_together();
  units_contended();
  killed_at_random(argc > 1 ? atoi(argv[1]) : 100 / TAP_STEP);
  looked_after();
  tables_damaged();
  return tap_plan_done();
}
