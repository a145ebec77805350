/* tests/store_ledger.c: the ledger (cases L1 to L43), on the store `local` and on one that answers with copies; or,
 * with a URI as argument, on that, where L25 to L29 are also between two processes.
 * May use: packbuf_transport.h, copying.h, failing.h, tap.h. Must not know: how books are kept. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../transport/packbuf_transport.h"
#include "copying.h"
#include "failing.h"
#include "tap.h"
#include <pthread.h>
#include <time.h>

static packbuf_store *store, *other; /* two handles where there can be two */
static packbuf_store_info info;
static packbuf_ledger *ledger;
static packbuf_error error;
static packbuf_put_options putting;
static packbuf_get_options getting;
static const char *where;

static int is(packbuf_status got, packbuf_status want) {
  char line[300];
  if (got == want) return 1;
  if (got) packbuf_error_format(&error, line, sizeof line);
  tap_note("%s, not %s: %s", packbuf_status_name(got), packbuf_status_name(want), got ? line : "");
  return 0;
}

static void pause_ms(long ms) {
  struct timespec time;
  time.tv_sec = 0;
  time.tv_nsec = ms * 1000000;
  nanosleep(&time, NULL);
}

static int can(unsigned capability) { return (info.capabilities & capability) != 0; }

/* Whether a removal under no lease of ours is done when it returns: an engine may hold leases of its own. */
static int at_once(void) { return can(PACKBUF_CAN_REMOVE_NOW); }

static packbuf_status gc(packbuf_ledger *l, uint64_t age_ms, uint64_t *gone, packbuf_error *e) {
  return packbuf_ledger_gc(l, age_ms, PACKBUF_FOREVER, gone, e);
}

/* ---- batches of one field, whose numbers follow a seed ---- */

typedef struct small {
  packbuf_arena arena;
  packbuf_batch batch;
  int64_t numbers[100];
} small;

static small *make(int64_t seed) {
  static const uint64_t shape[1] = {100};
  small *s = (small *)malloc(sizeof *s);
  packbuf_tensor t;
  memset(&t, 0, sizeof t);
  for (int64_t i = 0; i < 100; i++) s->numbers[i] = seed * 1000003 + i * i * i;
  t.data = s->numbers;
  t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  t.rank = 1;
  t.shape = shape;
  packbuf_arena_init(&s->arena, NULL);
  packbuf_batch_init(&s->batch, 100, &s->arena, NULL, &error);
  packbuf_add_tensor(&s->batch, "n", &t, NULL, &error);
  return s;
}

static void drop(small *s) {
  packbuf_arena_free(&s->arena);
  free(s);
}

static uint64_t size_of_one(void) {
  small *s = make(1);
  uint64_t size = 0;
  packbuf_measure(&s->batch, &size, &error);
  drop(s);
  return size;
}

static packbuf_status put_in(packbuf_ledger *l, const char *key, int64_t seed, packbuf_ref *ref) {
  small *s = make(seed);
  const packbuf_status status = packbuf_ledger_put(l, key, &s->batch, &putting, ref, &error);
  drop(s);
  return status;
}

static packbuf_status put(const char *key, int64_t seed, packbuf_ref *ref) { return put_in(ledger, key, seed, ref); }

static int holds(const packbuf_object *object, int64_t seed) {
  packbuf_node node;
  packbuf_column column;
  int64_t numbers[100];
  if (!object->views || packbuf_find(object->views, 0, "n", &node, &error) ||
      packbuf_open_column(object->views, node.index, &column, &error))
    return 0;
  if (packbuf_copy_elements(object->views, &column.data, 0, 100, numbers, sizeof numbers, &error)) return 0;
  for (int64_t i = 0; i < 100; i++)
    if (numbers[i] != seed * 1000003 + i * i * i) return 0;
  return 1;
}

/* Gets and says whether it is the batch of the seed; 0: any status but this one. */
static int gets(packbuf_ledger *l, const packbuf_ref *ref, packbuf_object *object, packbuf_status want, int64_t seed) {
  return is(packbuf_ledger_get(l, ref, &getting, object, &error), want) && object->status == want &&
         (want != PACKBUF_OK || holds(object, seed)) && (want == PACKBUF_OK || !object->inner);
}

static packbuf_ledger_state state_of(packbuf_ledger *l) {
  packbuf_ledger_state state;
  memset(&state, 0xff, sizeof state);
  packbuf_ledger_describe(l, &state, &error);
  return state;
}

static int in_store(const char *key, uint64_t generation) {
  packbuf_item item;
  memset(&item, 0, sizeof item);
  item.key = key;
  item.generation = generation;
  return packbuf_batch_stat(store, &item, 1, PACKBUF_FOREVER, NULL) == PACKBUF_OK;
}

static void fail_next(uint64_t count, packbuf_status status) {
  packbuf_fault faults[8];
  for (uint64_t i = 0; i < count; i++) {
    faults[i].at = i;
    faults[i].kind = PACKBUF_FAULT_FAIL;
    faults[i].argument = (uint64_t)status;
  }
  packbuf_store_inject(store, faults, count, &error);
}

static void begin_for(uint32_t readings, uint64_t most, int retain) {
  packbuf_ledger_options options;
  memset(&options, 0, sizeof options);
  options.most_bytes = most;
  options.retain = (uint8_t)retain;
  options.readings = readings;
  if (!is(packbuf_ledger_open(store, &options, &ledger, &error), PACKBUF_OK)) printf("Bail out! no ledger\n");
}

static void begin(uint64_t most, int retain) { begin_for(0, most, retain); }

/* Ends the ledger; what is left in the store goes, and must be `left` objects. */
static void end(const char *what, uint64_t left) {
  packbuf_counters counters;
  packbuf_listed listed[64];
  uint64_t cursor = 0, count = 0;
  memset(&counters, 0, sizeof counters);
  packbuf_store_inject(store, NULL, 0, NULL);
  packbuf_store_counters(store, &counters, NULL);
  if (can(PACKBUF_CAN_LIST)) packbuf_store_list(store, NULL, &cursor, listed, 64, &count, PACKBUF_FOREVER, NULL);
  else count = left;
  tap_ok(is(packbuf_ledger_close(ledger, &error), PACKBUF_OK) && counters.leases == 0 && count == left,
         "%s: %s: closed, %d objects left in the store", where, what, (int)count);
  for (uint64_t i = 0; i < count; i++) {
    packbuf_item item;
    memset(&item, 0, sizeof item);
    item.key = listed[i].key;
    packbuf_batch_remove(store, &item, 1, PACKBUF_NO_WAIT, NULL);
  }
}

/* ---- consume once ---- */

static void consume_once(void) {
  packbuf_ref g1, g2, newest = packbuf_ref_newest("a");
  packbuf_object object, second;
  packbuf_ledger_state state;
  packbuf_item item;
  int freed = 7, good, unread;
  begin(0, 0);
  good = is(put("a", 1, &g1), PACKBUF_OK) && strcmp(g1.uri, info.uri) == 0 && g1.generation != 0;
  tap_ok(good && gets(ledger, &g1, &object, PACKBUF_OK, 1), "%s: L1: there and back, bit for bit", where);
  memset(&item, 0, sizeof item);
  item.key = "a";
  tap_ok(!packbuf_batch_stat(store, &item, 1, PACKBUF_FOREVER, &error) && !(item.stat.flags & PACKBUF_PUT_EVICTABLE),
         "%s: L3: it stays until it is removed", where);
  state = state_of(ledger);
  tap_ok(state.batches == 1 && state.bytes == g1.length && state.bytes == size_of_one() && state.reading == 1 &&
             state.pending == 0,
         "%s: L35: bytes are exact", where);
  tap_ok(gets(ledger, &newest, &second, PACKBUF_OK, 1) && state_of(ledger).reading == 2, "%s: L9: read twice", where);
  tap_ok(is(packbuf_ledger_close(ledger, &error), PACKBUF_LEASED), "%s: L40: close while it is read", where);
  tap_ok(is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 && !object.inner &&
             in_store("a", g1.generation),
         "%s: L9: the first release keeps it", where);
  tap_ok(is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 &&
             state_of(ledger).reading == 1,
         "%s: L30: releasing again does nothing", where);
  tap_ok(is(packbuf_ledger_release(ledger, &second, &freed, &error), PACKBUF_OK) && freed == at_once() &&
             !in_store("a", 0) && state_of(ledger).bytes == 0,
         "%s: L9: the second frees it", where);
  tap_ok(gets(ledger, &g1, &object, PACKBUF_NOT_FOUND, 0) && gets(ledger, &newest, &object, PACKBUF_NOT_FOUND, 0),
         "%s: L4: it is gone", where);
  tap_ok(is(put("a", 2, &g2), PACKBUF_OK) && gets(ledger, &g1, &object, PACKBUF_STALE, 0),
         "%s: L7: put again, the old ref is stale", where);
  tap_ok(g2.generation > g1.generation && !in_store("a", g1.generation) && in_store("a", g2.generation),
         "%s: L23: g1 gone, g2 there", where);
  tap_ok(gets(ledger, &g2, &object, PACKBUF_OK, 2) && is(put("a", 3, &g1), PACKBUF_OK) &&
             is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 &&
             gets(ledger, &g1, &object, PACKBUF_OK, 3),
         "%s: L31: the release of a stale object keeps the new one", where);
  packbuf_ledger_put_back(ledger, &object);
  unread = !object.inner && state_of(ledger).reading == 0 && state_of(ledger).batches == 1;
  packbuf_ledger_put_back(ledger, &object);
  tap_ok(unread && state_of(ledger).batches == 1 && gets(ledger, &g1, &object, PACKBUF_OK, 3),
         "%s: L42: put back unread, it stays", where);
  tap_ok(is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == at_once() &&
             state_of(ledger).reading == 0,
         "%s: L37: put again while it was read", where);
  tap_ok(gets(ledger, &g2, &object, PACKBUF_STALE, 0), "%s: the one before is stale", where);
  newest = packbuf_ref_newest("nobody");
  tap_ok(gets(ledger, &newest, &object, PACKBUF_NOT_FOUND, 0) && strcmp(error.path, "nobody") == 0,
         "%s: L36: a key that never was", where);
  if (!at_once()) is(packbuf_ledger_drain(ledger, packbuf_deadline_in(5000), &error), PACKBUF_OK);
  state = state_of(ledger);
  tap_ok(!state.batches && !state.bytes && !state.reading && !state.pending && !state.pending_bytes && !state.oldest_ms,
         "%s: the books are empty", where);
  end("consumed", 0);
}

/* Two consumers of each batch. */
static void wanted_twice(void) {
  packbuf_ref ref;
  packbuf_object object, second;
  int freed = 7, good;
  begin_for(2, 0, 0);
  good = is(put("w", 8, &ref), PACKBUF_OK) && gets(ledger, &ref, &object, PACKBUF_OK, 8);
  packbuf_ledger_put_back(ledger, &object);
  good = good && gets(ledger, &ref, &object, PACKBUF_OK, 8) &&
         is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 && in_store("w", 0) &&
         gets(ledger, &ref, &object, PACKBUF_OK, 8) &&
         is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == at_once() &&
         gets(ledger, &ref, &object, PACKBUF_NOT_FOUND, 0);
  tap_ok(good, "%s: L45: for two: one put back does not count, the first release keeps it, the second frees", where);
  good = is(put("w", 9, &ref), PACKBUF_OK) && gets(ledger, &ref, &object, PACKBUF_OK, 9) &&
         is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 && in_store("w", 0) &&
         gets(ledger, &ref, &object, PACKBUF_OK, 9) && gets(ledger, &ref, &second, PACKBUF_OK, 9) &&
         is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 && in_store("w", 0) &&
         is(packbuf_ledger_release(ledger, &second, &freed, &error), PACKBUF_OK) && freed == at_once();
  tap_ok(good, "%s: L45: for two: put again it is counted from the start, and stays while it is read", where);
  if (!at_once()) is(packbuf_ledger_drain(ledger, packbuf_deadline_in(5000), &error), PACKBUF_OK);
  end("for two", 0);
}

static void retained(void) {
  packbuf_ref ref;
  packbuf_object object;
  uint64_t gone = 9;
  int freed = 1, good = 1;
  begin(0, 1);
  good = is(put("r", 5, &ref), PACKBUF_OK);
  for (int i = 0; i < 3; i++)
    good = good && gets(ledger, &ref, &object, PACKBUF_OK, 5) &&
           is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0;
  tap_ok(good, "%s: L8: retained, for more epochs", where);
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && gone == 0 && in_store("r", 0),
         "%s: L38: gc without an age frees nothing", where);
  tap_ok(is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK) && !in_store("r", 0) &&
             gets(ledger, &ref, &object, PACKBUF_NOT_FOUND, 0) && state_of(ledger).bytes == 0,
         "%s: L6: aborted", where);
  tap_ok(is(packbuf_ledger_abort(ledger, &ref, &error), at_once() ? PACKBUF_NOT_FOUND : PACKBUF_OK),
         "%s: aborted again", where);
  end("retained", 0);
}

static void aborted(void) {
  packbuf_ref ref, unknown, older;
  packbuf_object object;
  int good = 1, freed = 1;
  begin(0, 0);
  for (int i = 0; i < 20; i++)
    good = good && is(put("x", i, &ref), PACKBUF_OK) && is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK);
  tap_ok(good && state_of(ledger).bytes == 0 && state_of(ledger).oldest_ms == 0 && !in_store("x", 0),
         "%s: L34: 20 aborts leave nothing", where);
  unknown = ref;
  memcpy(unknown.key, "unknown", 8);
  tap_ok(is(packbuf_ledger_abort(ledger, &unknown, &error), PACKBUF_NOT_FOUND) &&
             gets(ledger, &unknown, &object, PACKBUF_NOT_FOUND, 0),
         "%s: L41: what was never on the books", where);
  { /* and it is remembered, though the store has it */
    small *s = make(8);
    packbuf_ref later;
    unknown = packbuf_ref_newest("late");
    is(packbuf_ledger_abort(ledger, &unknown, &error), PACKBUF_NOT_FOUND);
    packbuf_put(store, "late", &s->batch, &putting, &later, &error);
    tap_ok(gets(ledger, &later, &object, PACKBUF_NOT_FOUND, 0) && gets(ledger, &unknown, &object, PACKBUF_NOT_FOUND, 0),
           "%s: L41: of any generation", where);
    drop(s);
    tap_ok(is(put("late", 9, &later), PACKBUF_OK) && gets(ledger, &later, &object, PACKBUF_OK, 9),
           "%s: until it is put here", where);
    packbuf_ledger_release(ledger, &object, NULL, &error);
  }
  is(put("y", 1, &older), PACKBUF_OK);
  is(put("y", 2, &ref), PACKBUF_OK);
  tap_ok(is(packbuf_ledger_abort(ledger, &older, &error), PACKBUF_STALE) && gets(ledger, &ref, &object, PACKBUF_OK, 2),
         "%s: an older generation is not aborted", where);
  tap_ok(is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK) && holds(&object, 2) &&
             is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 &&
             state_of(ledger).reading == 0,
         "%s: aborted while it is read: the reader keeps its bytes", where);
  packbuf_ledger_drain(ledger, PACKBUF_NO_WAIT, &error);
  tap_ok(state_of(ledger).pending == 0 && state_of(ledger).pending_bytes == 0, "%s: nothing is pending then", where);
  end("aborted", 0);
}

/* ---- removals that fail or are delayed ---- */

static void delayed(void) {
  packbuf_ref ref, again;
  packbuf_object object;
  packbuf_ledger_state state;
  uint64_t gone = 9;
  int freed = 1;
  if (!can(PACKBUF_CAN_INJECT)) return;
  begin(0, 0);
  is(put("d", 1, &ref), PACKBUF_OK);
  gets(ledger, &ref, &object, PACKBUF_OK, 1);
  fail_next(1, PACKBUF_LEASED);
  tap_ok(is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 &&
             state_of(ledger).pending == 1 && state_of(ledger).pending_bytes == ref.length &&
             state_of(ledger).bytes == 0,
         "%s: L14: a removal that fails is pending", where);
  tap_ok(in_store("d", 0), "%s: the store still has it", where);
  fail_next(1, PACKBUF_LEASED);
  tap_ok(gets(ledger, &ref, &object, PACKBUF_NOT_FOUND, 0), "%s: L5: it is not found meanwhile", where);
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && gone == 0 && state_of(ledger).pending == 1,
         "%s: L14: gc fails too", where);
  tap_ok(
      is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && gone == 1 && state_of(ledger).pending == 0 && !in_store("d", 0),
      "%s: L14: gc again frees it", where);
  is(put("d", 2, &ref), PACKBUF_OK);
  fail_next(8, PACKBUF_LEASED);
  tap_ok(
      is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK) && gets(ledger, &ref, &object, PACKBUF_NOT_FOUND, 0),
      "%s: L22: aborted, with bytes that linger", where);
  for (int i = 0; i < 5; i++) gc(ledger, 0, &gone, &error);
  packbuf_store_inject(store, NULL, 0, NULL);
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && gone == 0 && state_of(ledger).pending == 1,
         "%s: after three attempts gc only counts it", where);
  fail_next(1, PACKBUF_LEASED);
  tap_ok(is(packbuf_ledger_drain(ledger, packbuf_deadline_in(5000), &error), PACKBUF_OK) &&
             state_of(ledger).pending == 0 && !in_store("d", 0),
         "%s: L15: drain tries twice", where);
  is(put("d", 3, &ref), PACKBUF_OK);
  fail_next(8, PACKBUF_LEASED);
  is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK);
  tap_ok(is(packbuf_ledger_drain(ledger, packbuf_deadline_in(120), &error), PACKBUF_TIMEOUT) && error.row == 1 &&
             state_of(ledger).pending == 1,
         "%s: L19: drain at its deadline", where);
  packbuf_store_inject(store, NULL, 0, NULL);
  tap_ok(is(put("d", 4, &again), PACKBUF_OK) && state_of(ledger).pending == 0 &&
             gets(ledger, &ref, &object, PACKBUF_STALE, 0) && gets(ledger, &again, &object, PACKBUF_OK, 4),
         "%s: put again over what is pending", where);
  fail_next(1, PACKBUF_DISCONNECTED);
  tap_ok(is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_DISCONNECTED) && !object.inner &&
             state_of(ledger).pending == 1,
         "%s: a store that is gone is told of", where);
  { /* the removal happened all the same */
    packbuf_item item;
    memset(&item, 0, sizeof item);
    item.key = "d";
    packbuf_batch_remove(store, &item, 1, PACKBUF_NO_WAIT, &error);
  }
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && gone == 1 && state_of(ledger).pending == 0,
         "%s: L39: a removal that failed is reconciled", where);
  state = state_of(ledger);
  tap_ok(!state.batches && !state.bytes && !state.pending && !state.pending_bytes && !state.reading,
         "%s: the books are empty", where);
  end("delayed", 0);
}

static void ages(void) {
  packbuf_ref old, read, young;
  packbuf_object object;
  uint64_t gone = 9;
  begin(0, 0);
  is(put("old", 1, &old), PACKBUF_OK);
  is(put("read", 2, &read), PACKBUF_OK);
  gets(ledger, &read, &object, PACKBUF_OK, 2);
  pause_ms(120);
  is(put("young", 3, &young), PACKBUF_OK);
  tap_ok(is(packbuf_ledger_gc(ledger, 100, 1, &gone, &error), PACKBUF_OK) && gone == 0 && in_store("old", 0),
         "%s: L43: gc begins nothing after its deadline", where);
  tap_ok(is(gc(ledger, 100, &gone, &error), PACKBUF_OK) && gone == 1 && !in_store("old", 0) && in_store("read", 0) &&
             in_store("young", 0),
         "%s: L12, L13: gc frees what is old and not being read", where);
  {
    packbuf_object none;
    tap_ok(gets(ledger, &old, &none, PACKBUF_NOT_FOUND, 0) && holds(&object, 2), "%s: L12: it is not found", where);
  }
  is(packbuf_ledger_release(ledger, &object, NULL, &error), PACKBUF_OK);
  end("ages", 1);
}

static void caps(void) {
  const uint64_t one = size_of_one();
  packbuf_ref ref;
  packbuf_object object;
  int good = 1;
  begin(16, 0);
  tap_ok(is(put("a", 1, &ref), PACKBUF_LIMIT) && !in_store("a", 0), "%s: L11: a cap of 16 bytes", where);
  end("capped", 0);
  begin(one + one / 2, 0);
  tap_ok(is(put("a", 1, &ref), PACKBUF_OK) && is(put("b", 1, NULL), PACKBUF_LIMIT) && !in_store("b", 0),
         "%s: L33: a cap of one and a half", where);
  tap_ok(gets(ledger, &ref, &object, PACKBUF_OK, 1) &&
             is(packbuf_ledger_release(ledger, &object, NULL, &error), PACKBUF_OK) && is(put("b", 2, &ref), PACKBUF_OK),
         "%s: L33: one after the other", where);
  for (int i = 0; i < 50; i++) {
    packbuf_ref of;
    char key[16];
    is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK);
    snprintf(key, sizeof key, "k%d", i % 7);
    good = good && is(put(key, i, &of), PACKBUF_OK) && gets(ledger, &of, &object, PACKBUF_OK, i) &&
           is(packbuf_ledger_release(ledger, &object, NULL, &error), PACKBUF_OK);
    if (i == 0) ref = of, is(put("b", 3, &ref), PACKBUF_OK);
    else if (good) good = is(put("b", 3, &ref), PACKBUF_OK);
  }
  is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_OK);
  tap_ok(good && state_of(ledger).bytes == 0, "%s: L32: 50 times put, got, released", where);
  end("cap", 0);
}

/* ---- two ledgers ---- */

static void two(void) {
  packbuf_ledger *b = NULL;
  packbuf_ref g1, g2, adopted;
  packbuf_object object, second;
  uint64_t gone = 9;
  int freed = 0;
  begin(0, 0);
  is(packbuf_ledger_open(other, NULL, &b, &error), PACKBUF_OK);
  is(put("p", 1, &g1), PACKBUF_OK);
  tap_ok(gets(b, &g1, &object, PACKBUF_OK, 1), "%s: L25: the consumer's get is bit for bit", where);
  tap_ok(is(put("p", 2, &g2), PACKBUF_OK) && (!can(PACKBUF_CAN_SUPERSEDE) || gets(b, &g1, &second, PACKBUF_STALE, 0)),
         "%s: L26: a stale generation", where);
  tap_ok(is(packbuf_ledger_release(b, &object, &freed, &error), PACKBUF_OK) && gets(b, &g2, &object, PACKBUF_OK, 2),
         "%s: the consumer gets the newer one", where);
  tap_ok(is(packbuf_ledger_release(b, &object, &freed, &error), PACKBUF_OK) && freed == at_once() && !in_store("p", 0),
         "%s: L28: the consumer's release frees it", where);
  tap_ok(state_of(ledger).batches == 1 && is(gc(ledger, 0, &gone, &error), PACKBUF_OK) &&
             (!can(PACKBUF_CAN_REMOVE_NOW) || (state_of(ledger).batches == 0 && gone == 0)) &&
             gets(ledger, &g2, &object, PACKBUF_NOT_FOUND, 0),
         "%s: L28: the producer learns of it", where);
  is(put("q", 3, &g1), PACKBUF_OK);
  tap_ok(is(packbuf_ledger_abort(ledger, &g1, &error), PACKBUF_OK) && gets(b, &g1, &object, PACKBUF_NOT_FOUND, 0),
         "%s: L27: the producer's abort stops the consumer", where);
  is(put("q", 4, &g1), PACKBUF_OK);
  gets(b, &g1, &object, PACKBUF_OK, 4);
  tap_ok(is(packbuf_ledger_abort(ledger, &g1, &error), PACKBUF_OK) && gets(b, &g1, &second, PACKBUF_NOT_FOUND, 0) &&
             holds(&object, 4),
         "%s: L29: an abort under the consumer's lease", where);
  tap_ok(state_of(ledger).pending == (can(PACKBUF_CAN_IN_PLACE) ? 1u : 0u), "%s: L29: its memory comes later, in place",
         where);
  is(packbuf_ledger_release(b, &object, &freed, &error), PACKBUF_OK);
  tap_ok(is(gc(ledger, 0, &gone, &error), PACKBUF_OK) && state_of(ledger).pending == 0, "%s: L29: then", where);
  is(put("r", 5, &g1), PACKBUF_OK);
  adopted = g1;
  adopted.length = 0;
  tap_ok(is(packbuf_ledger_adopt(b, &adopted, PACKBUF_FOREVER, &error), PACKBUF_OK) && state_of(b).bytes >= g1.length &&
             gets(b, &g1, &object, PACKBUF_OK, 5) &&
             is(packbuf_ledger_release(b, &object, &freed, &error), PACKBUF_OK) && freed == at_once() &&
             !in_store("r", 0),
         "%s: L20: adopted, got, released: removed", where);
  tap_ok(is(packbuf_ledger_adopt(b, &g1, PACKBUF_FOREVER, &error), PACKBUF_NOT_FOUND), "%s: adopting what is gone",
         where);
  tap_ok(is(packbuf_ledger_close(b, &error), PACKBUF_OK), "%s: the consumer's closes", where);
  end("two", 0);
}

/* ---- an engine that grants leases of its own ---- */

/* `copy:`, but whoever looks at an object or gets it leases it: for that many tries to remove it, forced or not. */
enum { LEASED_FOR = 4 };
static struct { uint64_t left, stats, removes; } engine;

static void engine_run(void *state, packbuf_call *call) {
  copying *c = (copying *)state;
  for (uint64_t i = 0; i < call->count; i++) {
    packbuf_item *item = &call->items[i];
    engine.stats += call->operation == PACKBUF_STAT;
    engine.removes += call->operation == PACKBUF_REMOVE;
    if (call->operation == PACKBUF_REMOVE && engine.left) {
      engine.left--;
      item->status = PACKBUF_LEASED;
    } else {
      item->status = copying_one(c, call, item);
      if (call->operation != PACKBUF_PUT) engine.left = LEASED_FOR;
    }
    call->done(call, i);
  }
}

static packbuf_status engine_describe(void *state, packbuf_store_info *about, uint64_t deadline, packbuf_error *e) {
  const packbuf_status status = copying_describe(state, about, deadline, e);
  about->capabilities &= ~(unsigned)PACKBUF_CAN_REMOVE_NOW;
  return status;
}

/* Drain never looks whether a removal is done: that would renew the lease that delays it. */
static void not_renewed(void) {
  packbuf_driver driver = copying_driver;
  packbuf_store *before = store;
  packbuf_ref ref;
  packbuf_object object;
  int freed = 1, good;
  driver.run = engine_run;
  driver.describe = engine_describe;
  where = "engine";
  if (!is(packbuf_store_open_driver(&driver, "copy:", NULL, &store, &error), PACKBUF_OK)) return;
  packbuf_store_describe(store, &info, PACKBUF_FOREVER, &error);
  begin(0, 0);
  is(put("e", 1, &ref), PACKBUF_OK);
  tap_ok(gets(ledger, &ref, &object, PACKBUF_OK, 1) &&
             is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == 0 &&
             state_of(ledger).pending == 1,
         "%s: released under the engine's lease: pending", where);
  engine.stats = engine.removes = 0;
  engine.left = LEASED_FOR;
  good = is(packbuf_ledger_drain(ledger, packbuf_deadline_in(20000), &error), PACKBUF_OK);
  tap_ok(good && state_of(ledger).pending == 0 && engine.removes == LEASED_FOR + 1 && engine.stats == 0,
         "%s: L18: drained after %lu attempts and %lu looks", where, (unsigned long)engine.removes,
         (unsigned long)engine.stats);
  end("not renewed", 0);
  tap_ok(is(packbuf_store_close(store, PACKBUF_FOREVER, &error), PACKBUF_OK), "%s: closed", where);
  store = before;
}

/* L10: without the store's secret there is no ledger on it. */
static void secrets(const char *uri) {
  packbuf_store_options options = packbuf_default_store_options();
  char *right = getenv("PACKBUF_SECRET") ? strdup(getenv("PACKBUF_SECRET")) : NULL;
  packbuf_store *none = NULL;
  packbuf_status without, wrong;
  if (!right) {
    tap_note("%s: L10 wants a store with a secret", where);
    return;
  }
  unsetenv("PACKBUF_SECRET");
  options.pool_size = 1 << 20;
  without = packbuf_store_open(uri, &options, &none, &error);
  options.secret = "wrong";
  options.secret_size = 5;
  wrong = packbuf_store_open(uri, &options, &none, &error);
  setenv("PACKBUF_SECRET", right, 1);
  free(right);
  tap_ok(is(without, PACKBUF_DENIED) && is(wrong, PACKBUF_DENIED) && !none, "%s: L10: no secret, a wrong one: DENIED",
         where);
}

/* L17: releasing some frees those alone. L2: what a reader does to its copy. L24: an object that is cut. */
static void others(void) {
  packbuf_ref refs[4];
  packbuf_object objects[4], object;
  packbuf_ledger *none = NULL;
  packbuf_item item;
  uint8_t bytes[4096];
  packbuf_ref ref;
  char key[16];
  int good = 1, freed = 0;
  begin(0, 0);
  for (int i = 0; i < 4; i++) {
    snprintf(key, sizeof key, "s%d", i);
    good = good && is(put(key, i, &refs[i]), PACKBUF_OK) && gets(ledger, &refs[i], &objects[i], PACKBUF_OK, i);
  }
  for (int i = 0; i < 4; i += 2)
    good = good && is(packbuf_ledger_release(ledger, &objects[i], &freed, &error), PACKBUF_OK) && freed == at_once();
  tap_ok(good && !in_store("s0", 0) && in_store("s1", 0) && !in_store("s2", 0) && in_store("s3", 0) &&
             holds(&objects[1], 1),
         "%s: L17: a set that is released is freed alone", where);
  memcpy(bytes, objects[1].views->base, (size_t)refs[1].length);
  memset(bytes + 500, 1, 100);
  tap_ok(gets(ledger, &refs[1], &object, PACKBUF_OK, 1), "%s: L2: what a reader changes in its copy shows nowhere",
         where);
  packbuf_ledger_release(ledger, &object, NULL, &error);
  memcpy(bytes, objects[1].views->base, (size_t)refs[1].length);
  for (int i = 1; i < 4; i += 2) packbuf_ledger_release(ledger, &objects[i], NULL, &error);
  memset(&item, 0, sizeof item);
  item.key = "cut";
  item.from = bytes;
  item.size = refs[1].length - 4;
  packbuf_batch_put(store, &item, 1, PACKBUF_FOREVER, &error);
  ref = refs[1];
  memcpy(ref.key, "cut", 4);
  ref.generation = item.stat.generation;
  memset(ref.fingerprint, 0, sizeof ref.fingerprint);
  tap_ok(gets(ledger, &ref, &object, PACKBUF_SHORT_READ, 0) && state_of(ledger).batches == 0,
         "%s: L24: an object cut by 4 bytes", where);
  tap_ok(is(packbuf_ledger_put(ledger, "a#b", NULL, &putting, NULL, &error), PACKBUF_INVALID_ARGUMENT) &&
             is(packbuf_ledger_open(NULL, NULL, &none, &error), PACKBUF_INVALID_ARGUMENT) && !none,
         "%s: arguments", where);
  end("others", 1);
}

/* Manifests are freed with all they list. */
static void wholes(void) {
  small *a = make(1), *b = make(2);
  packbuf_ref first, whole;
  packbuf_object object;
  int freed = 0;
  begin(0, 0);
  packbuf_put(store, "w", &a->batch, &putting, &first, &error);
  is(packbuf_append(store, &first, &b->batch, PACKBUF_APPENDS_ROWS, &putting, &whole, &error), PACKBUF_OK);
  tap_ok(is(packbuf_ledger_adopt(ledger, &whole, PACKBUF_FOREVER, &error), PACKBUF_OK) &&
             is(packbuf_ledger_get(ledger, &whole, &getting, &object, &error), PACKBUF_OK) && object.join &&
             object.join->rows == 200 && is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) &&
             freed == at_once(),
         "%s: a manifest", where);
  drop(a);
  drop(b);
  end("a manifest", 0);
}

/* Some fields of a batch are a reading like any. */
static void selected(void) {
  static const char *const patterns[1] = {"n"};
  packbuf_wanted wanted;
  packbuf_ref ref;
  packbuf_object object;
  int freed = 0, good;
  begin(0, 0);
  memset(&wanted, 0, sizeof wanted);
  wanted.patterns = patterns;
  wanted.pattern_count = 1;
  good = is(put("s", 4, &ref), PACKBUF_OK) &&
         is(packbuf_ledger_get_select(ledger, &ref, NULL, &getting, &object, &error), PACKBUF_INVALID_ARGUMENT) &&
         object.status == PACKBUF_INVALID_ARGUMENT && state_of(ledger).reading == 0;
  good = good && is(packbuf_ledger_get_select(ledger, &ref, &wanted, &getting, &object, &error), PACKBUF_OK);
  tap_ok(good && object.selection && holds(&object, 4) && state_of(ledger).reading == 1,
         "%s: L44: some fields, counted as a reading", where);
  tap_ok(is(packbuf_ledger_release(ledger, &object, &freed, &error), PACKBUF_OK) && freed == at_once() &&
             is(packbuf_ledger_get_select(ledger, &ref, &wanted, &getting, &object, &error), PACKBUF_NOT_FOUND),
         "%s: L44: its release frees", where);
  if (!at_once()) is(packbuf_ledger_drain(ledger, packbuf_deadline_in(5000), &error), PACKBUF_OK);
  end("some fields", 0);
}

/* Many keys: the table grows, and of what is gone the newest are remembered. */
static void table(void) {
  enum { N = 66000 };
  packbuf_ref ref;
  packbuf_object object;
  int good = 1;
  begin(0, 0);
  memset(&ref, 0, sizeof ref);
  ref.generation = 5;
  for (int i = 0; good && i < N; i++) {
    snprintf(ref.key, sizeof ref.key, "key%d", i);
    good = packbuf_ledger_abort(ledger, &ref, &error) == PACKBUF_NOT_FOUND;
  }
  tap_ok(good && gets(ledger, &ref, &object, PACKBUF_NOT_FOUND, 0), "%s: %d keys aborted", where, N);
  ref.generation = 4;
  good = is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_STALE);
  memcpy(ref.key, "key9", 5);
  tap_ok(good && is(packbuf_ledger_abort(ledger, &ref, &error), PACKBUF_NOT_FOUND), "%s: the oldest are forgotten",
         where);
  end("many keys", 0);
}

/* ---- threads, memory ---- */

static void *worker(void *argument) {
  const int id = (int)(intptr_t)argument;
  packbuf_error e;
  for (int i = 0; i < 200; i++) {
    small *s = make(i);
    packbuf_ref ref;
    packbuf_object object;
    char key[16];
    snprintf(key, sizeof key, "t%d", (id + i) % 5);
    if (!packbuf_ledger_put(ledger, key, &s->batch, &putting, &ref, &e) &&
        !packbuf_ledger_get(ledger, &ref, &getting, &object, &e))
      packbuf_ledger_release(ledger, &object, NULL, &e);
    if (i % 20 == 0) gc(ledger, 0, NULL, &e);
    if (i % 7 == 0) packbuf_ledger_abort(ledger, &ref, &e);
    drop(s);
  }
  return NULL;
}

static void threads(void) {
  pthread_t ids[4];
  packbuf_ledger_state state;
  uint64_t gone = 0;
  begin(0, 0);
  for (int i = 0; i < 4; i++) pthread_create(&ids[i], NULL, worker, (void *)(intptr_t)i);
  for (int i = 0; i < 4; i++) pthread_join(ids[i], NULL);
  pause_ms(3);
  gc(ledger, 1, &gone, &error);
  if (!at_once()) is(packbuf_ledger_drain(ledger, packbuf_deadline_in(5000), &error), PACKBUF_OK);
  state = state_of(ledger);
  tap_ok(!state.batches && !state.bytes && !state.reading && !state.pending && !state.pending_bytes,
         "%s: four threads: the books are empty", where);
  end("threads", 0);
}

static void no_memory(void) {
  static failing fails;
  const packbuf_allocator allocator = failing_allocator(&fails);
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_store *before = store;
  unsigned long i = 0;
  int ended = 0, good = 1;
  fails = failing_at(~0ul, 0);
  options.allocator = &allocator;
  options.size = (uint64_t)8 << 20;
  if (!is(where[0] == 'l' ? packbuf_store_open("local:", &options, &store, &error)
                          : packbuf_store_open_driver(&copying_driver, info.uri, &options, &store, &error),
          PACKBUF_OK)) {
    store = before;
    return;
  }
  for (; good && !ended && i < 400; i++) {
    packbuf_ref ref;
    packbuf_object object;
    packbuf_ledger *l = NULL;
    uint64_t gone = 0;
    packbuf_status status;
    memset(&object, 0, sizeof object);
    fails = failing_at(i / 2, (int)(i & 1));
    status = packbuf_ledger_open(store, NULL, &l, &error);
    if (!status) status = put_in(l, "m", 1, &ref);
    if (!status) status = put_in(l, "n", 2, NULL);
    if (!status) status = packbuf_ledger_get(l, &ref, &getting, &object, &error);
    if (!status) status = gc(l, 1000000, &gone, &error);
    if (!status) status = packbuf_ledger_release(l, &object, NULL, &error);
    if (!status) status = packbuf_ledger_drain(l, PACKBUF_NO_WAIT, &error);
    ended = status == PACKBUF_OK && fails.calls <= i / 2;
    fails = failing_at(~0ul, 0);
    if (l && object.inner) packbuf_ledger_release(l, &object, NULL, &error);
    good = status == PACKBUF_OK || is(status, PACKBUF_OUT_OF_MEMORY);
    good = good && is(packbuf_ledger_close(l, &error), PACKBUF_OK);
  }
  tap_ok(good && ended, "%s: each of %d allocations fails", where, (int)(i - 1) / 2);
  tap_ok(is(packbuf_store_close(store, PACKBUF_FOREVER, &error), PACKBUF_OK), "%s: nothing was left out", where);
  store = before;
}

static void all_of(const char *name, int alone) {
  where = name;
  if (!is(packbuf_store_describe(store, &info, PACKBUF_FOREVER, &error), PACKBUF_OK)) return;
  consume_once();
  wanted_twice();
  retained();
  aborted();
  delayed();
  ages();
  caps();
  if (at_once()) two();
  else tap_note("%s: L25 to L29 want REMOVE_NOW", where);
  others();
  wholes();
  selected();
  if (alone) threads();
}

#include "store_ledger_apart.h"

static void finish(void) {
  if (other != store)
    tap_ok(is(packbuf_store_close(other, PACKBUF_FOREVER, &error), PACKBUF_OK), "%s: the second handle closed", where);
  tap_ok(is(packbuf_store_close(store, PACKBUF_FOREVER, &error), PACKBUF_OK), "%s: closed", where);
}

int main(int argc, char **argv) {
  packbuf_store_options options = packbuf_default_store_options(), beside;
  putting.deadline = getting.deadline = PACKBUF_FOREVER;
  options.size = (uint64_t)16 << 20;
  options.objects = 4096;
  if (argc == 4 && strcmp(argv[1], "--consumer") == 0) return apart_main(argv[2], atoi(argv[3]));
  if (argc > 1) {
    if (!tap_ok(is(packbuf_store_open(argv[1], &options, &store, &error), PACKBUF_OK), "%s", argv[1]))
      return tap_plan_done();
    if (!is(packbuf_store_open(argv[1], &options, &other, &error), PACKBUF_OK)) other = store;
    all_of(argv[1], 1);
    if (can(PACKBUF_CAN_OUTLIVE) && at_once()) two_processes(argv[0]);
    secrets(argv[1]);
    finish();
    return tap_plan_done();
  }
  if (is(packbuf_store_open("local:", &options, &store, &error), PACKBUF_OK)) {
    beside = options;
    beside.beside = store;
    if (!is(packbuf_store_open("local:", &beside, &other, &error), PACKBUF_OK)) other = store;
    all_of("local", 1);
    table();
    no_memory();
    finish();
  }
  if (is(packbuf_store_open_driver(&copying_driver, "copy:", &options, &store, &error), PACKBUF_OK)) {
    other = store;
    all_of("copy:", 0);
    no_memory();
    finish();
  }
  not_renewed();
  return tap_plan_done();
}
