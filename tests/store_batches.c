/* tests/store_batches.c: whole batches on stores (cases C79 to C92, and the parts of C66 to C70 that are about them):
 * on the store `local`, read in place, and on one that answers with copies, of ranges or of whole objects; or, with a
 * URI as argument, on that.
 * May use: packbuf_transport.h, packbuf_threads.h, batches.h, copying.h, failing.h, selecting.h, tap.h, the invalid
 * vectors. Must not know: how a store does it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../packbuf_threads.h"
#include "../transport/packbuf_transport.h"
#include "batches.h"
#include "copying.h"
#include "failing.h"
#include "selecting.h"
#include "tap.h"
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 26 };

static packbuf_store *store;
static packbuf_store_info info;
static const char *where; /* which store it is */
static packbuf_error error;
static packbuf_put_options putting;
static packbuf_get_options getting;

static int is(packbuf_status got, packbuf_status want) {
  char line[300];
  if (got == want) return 1;
  if (got) packbuf_error_format(&error, line, sizeof line);
  tap_note("%s, not %s: %s", packbuf_status_name(got), packbuf_status_name(want), got ? line : "");
  return 0;
}

/* Nothing is out; `objects` are left. */
static void audit(const char *after, uint64_t objects) {
  packbuf_counters counters;
  packbuf_listed listed[64];
  uint64_t cursor = 0, count = 0, all = 0;
  memset(&counters, 0, sizeof counters);
  packbuf_store_counters(store, &counters, NULL);
  if (info.capabilities & PACKBUF_CAN_LIST) do {
      if (packbuf_store_list(store, NULL, &cursor, listed, 64, &count, PACKBUF_FOREVER, NULL)) break;
      all += count;
    } while (cursor);
  else all = objects;
  tap_ok(counters.leases == 0 && counters.slices == 0 && all == objects,
         "%s: after %s: %d leases, %d slices, %d objects", where, after, (int)counters.leases, (int)counters.slices,
         (int)all);
}

static void clear(void) {
  packbuf_listed listed[16];
  uint64_t cursor = 0, count = 0;
  do {
    cursor = 0;
    if (packbuf_store_list(store, NULL, &cursor, listed, 16, &count, PACKBUF_FOREVER, NULL)) return;
    for (uint64_t i = 0; i < count; i++) {
      packbuf_item item;
      memset(&item, 0, sizeof item);
      item.key = listed[i].key;
      packbuf_batch_remove(store, &item, 1, PACKBUF_NO_WAIT, NULL);
    }
  } while (count);
}

static void fail_at(uint64_t at, packbuf_fault_kind kind, uint64_t argument) {
  packbuf_fault fault;
  fault.at = at;
  fault.kind = kind;
  fault.argument = argument;
  packbuf_store_inject(store, &fault, 1, NULL);
}

static void no_faults(void) { packbuf_store_inject(store, NULL, 0, NULL); }

/* ---- batches ---- */

/* Packs what was added, for comparison. */
static void pack(mv_trip *trip) {
  trip->data = NULL;
  if (packbuf_measure(&trip->batch, &trip->size, &trip->error)) printf("Bail out! %s\n", mv_error(&trip->error));
  trip->data = (uint8_t *)malloc((size_t)trip->size);
  if (packbuf_write(&trip->batch, trip->data, trip->size, &trip->size, &trip->error) ||
      packbuf_open(&trip->view, trip->data, trip->size, PACKBUF_OPEN_EXACT, NULL, &trip->error))
    printf("Bail out! %s\n", mv_error(&trip->error));
}

/* A random batch of `fields` fields. */
static void make(mv_trip *trip, uint64_t rows, unsigned fields, int packed) {
  packbuf_options options = packbuf_default_options();
  const batches_pool pool = batches_make_pool();
  if (packed) options.packing = PACKBUF_PACKING_BALANCED;
  mv_trip_begin(trip, rows, &options);
  if (batches_fill(&trip->batch, &pool, rows, fields, &trip->error)) printf("Bail out! %s\n", mv_error(&trip->error));
  pack(trip);
}

/* A batch of text and numbers in which each cell tells its row; the fields' names begin with `prefix`. */
static void number_rows(mv_trip *trip, uint64_t first, uint64_t rows, const char *prefix, unsigned token) {
  packbuf_options options = packbuf_default_options();
  packbuf_text *texts = (packbuf_text *)mv_alloc((rows + 1) * sizeof *texts);
  int64_t *numbers = (int64_t *)mv_alloc((rows + 1) * 8);
  uint64_t shape[1];
  packbuf_tensor t;
  char name[2][40];
  options.row_order_token[0] = (uint8_t)token;
  for (uint64_t i = 0; i < rows; i++) {
    char *text = (char *)mv_alloc(200);
    texts[i].size = (size_t)snprintf(text, 200, "%s row %d %*s", prefix, (int)(first + i), 100 + (int)(i % 40), "x");
    texts[i].data = text;
    numbers[i] = (int64_t)(first + i) * 7919 % 104729;
  }
  mv_trip_begin(trip, rows, &options);
  shape[0] = rows;
  t = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), (const uint64_t *)mv_copy(shape, sizeof shape));
  snprintf(name[0], 40, "%snumber", prefix);
  snprintf(name[1], 40, "%stext", prefix);
  packbuf_add_tensor(&trip->batch, (const char *)mv_copy(name[0], strlen(name[0])), &t, NULL, &trip->error);
  packbuf_add_strings(&trip->batch, (const char *)mv_copy(name[1], strlen(name[1])), texts, &trip->error);
  if (mv_trip_pack(trip)) printf("Bail out! %s\n", mv_error(&trip->error));
}

/* ---- what a call costs: the table of spec/scale.md ---- */

/* What the handle has counted since `from`. */
static packbuf_counters counted_since(const packbuf_counters *from) {
  packbuf_counters now;
  packbuf_store_counters(store, &now, NULL);
  now.puts -= from->puts;
  now.gets -= from->gets;
  now.removes -= from->removes;
  now.registrations -= from->registrations;
  now.bytes_moved -= from->bytes_moved;
  return now;
}

/* Items of one call, and bytes beside those of the objects: `most` of them on a wire. */
static void costs(const char *call, packbuf_counters *from, uint64_t puts, uint64_t gets, uint64_t removes,
                  uint64_t bytes, uint64_t most) {
  const packbuf_counters c = counted_since(from);
  const int wire = !(info.capabilities & PACKBUF_CAN_IN_PLACE) && info.capabilities & PACKBUF_CAN_RANGES;
  tap_ok(c.puts == puts && c.gets == gets && c.removes == removes && c.registrations == 0,
         "%s: %s: %d put, %d got, %d removed, %d registrations", where, call, (int)c.puts, (int)c.gets, (int)c.removes,
         (int)c.registrations);
  if (wire)
    tap_ok(c.bytes_moved <= bytes + most, "%s: %s: %d bytes of objects, %d in all", where, call, (int)bytes,
           (int)c.bytes_moved);
  packbuf_store_counters(store, from, NULL);
}

static void what_calls_cost(void) {
  static const char *const patterns[] = {"costnumber"};
  mv_trip trip[2];
  packbuf_ref ref, whole;
  packbuf_object object;
  packbuf_wanted wanted;
  packbuf_counters from;
  uint64_t head;
  const int ranges = (info.capabilities & (PACKBUF_CAN_IN_PLACE | PACKBUF_CAN_RANGES)) == PACKBUF_CAN_RANGES;
  number_rows(&trip[0], 0, 3000, "cost", 0);
  number_rows(&trip[1], 3000, 100, "cost", 0);
  head = trip[0].view.head_length + trip[0].view.index_length;
  memset(&wanted, 0, sizeof wanted);
  wanted.patterns = patterns;
  wanted.pattern_count = 1;
  wanted.rows = packbuf_rows_all();
  packbuf_store_counters(store, &from, NULL);
  is(packbuf_put(store, "cost", &trip[0].batch, &putting, &ref, &error), PACKBUF_OK);
  costs("a put", &from, 1, 0, 0, trip[0].size, 512);
  is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_OK);
  packbuf_object_release(&object);
  costs("a get", &from, 0, 1, 0, trip[0].size, 512);
  is(packbuf_get_select(store, &ref, &wanted, &getting, &object, &error), PACKBUF_OK);
  packbuf_object_release(&object);
  costs("a selection", &from, 0, ranges ? 2 : 1, 0, head + 3000 * 8 + 128, 1024);
  is(packbuf_append(store, &ref, &trip[1].batch, PACKBUF_APPENDS_ROWS, &putting, &whole, &error), PACKBUF_OK);
  costs("an append", &from, 2, 1, 0, head + trip[1].size + 4096, 2048); /* of the old one its head alone */
  is(packbuf_get(store, &whole, &getting, &object, &error), PACKBUF_OK);
  packbuf_object_release(&object);
  costs("a get of a whole of two", &from, 0, 3, 0, trip[0].size + trip[1].size + 4096, 2048);
  is(packbuf_append(store, &whole, &trip[1].batch, PACKBUF_APPENDS_ROWS, &putting, &whole, &error), PACKBUF_OK);
  costs("an append to that, of one fingerprint", &from, 2, 1, 0, trip[1].size + 8192, 2048);
  is(packbuf_remove(store, &whole, PACKBUF_FOREVER, &error), PACKBUF_OK);
  costs("its removal", &from, 0, 1, 5, 8192, 2048);
  mv_trip_end(&trip[0]);
  mv_trip_end(&trip[1]);
  mv_free();
  audit("what calls cost", 0);
}

/* ---- C79 to C83 ---- */

static int same_values(const packbuf_view *a, const packbuf_view *b) {
  packbuf_arena arena;
  packbuf_value x, y;
  int good = a->rows == b->rows;
  packbuf_arena_init(&arena, NULL);
  for (uint64_t row = 0; good && row < a->rows; row += 1 + a->rows / 20)
    good = !packbuf_read_row(a, row, &arena, &x, NULL) && !packbuf_read_row(b, row, &arena, &y, NULL) &&
           packbuf_equal(&x, &y);
  packbuf_arena_free(&arena);
  return good;
}

/* A ref says what the packed buffer is. */
static int right_ref(const packbuf_ref *ref, const char *key, const mv_trip *trip) {
  uint8_t fingerprint[PACKBUF_FINGERPRINT];
  packbuf_fingerprint(&trip->view, fingerprint, NULL);
  return strcmp(ref->uri, info.uri) == 0 && strcmp(ref->key, key) == 0 && ref->generation != 0 &&
         ref->length == trip->size && ref->head_length == trip->view.head_length + trip->view.index_length &&
         ref->head_checksum == trip->view.head_checksum && ref->kind == PACKBUF_OBJECT_BATCH &&
         memcmp(ref->fingerprint, fingerprint, sizeof fingerprint) == 0;
}

static packbuf_status by_pool(void *context, packbuf_batch *batch, void *dst, uint64_t capacity, uint64_t *size,
                              packbuf_error *e) {
  return packbuf_thread_pool_write((packbuf_thread_pool *)context, batch, dst, capacity, size, e);
}

static void round_trips(void) {
  packbuf_thread_pool pool;
  int bytes = 1, refs = 1, values = 1, hook = 1;
  unsigned done = 0;
  packbuf_thread_pool_start(&pool, 3, &error);
  for (; done < 8; done++) {
    packbuf_put_options options = putting;
    packbuf_object object;
    packbuf_ref ref, newest;
    mv_trip trip;
    make(&trip, 1 + mv_below(200), 1 + mv_below(8), done % 2 != 0);
    refs &= is(packbuf_put(store, "key/of@a%batch", &trip.batch, &options, &ref, &error), PACKBUF_OK) &&
            right_ref(&ref, "key/of@a%batch", &trip);
    getting.level = (uint8_t)(done % 3);
    getting.fingerprint = ref.fingerprint;
    bytes &= is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_OK) && object.view_count == 1 &&
             object.views->total_length == trip.size && memcmp(object.views->base, trip.data, (size_t)trip.size) == 0 &&
             !object.join && !object.selection;
    values &= same_values(object.views, &trip.view);
    refs &= right_ref(&object.ref, "key/of@a%batch", &trip) && object.ref.generation == ref.generation;
    refs &= object.moved == (info.capabilities & PACKBUF_CAN_IN_PLACE ? 0 : trip.size);
    packbuf_object_release(&object);
    packbuf_object_release(&object);
    newest = packbuf_ref_newest("key/of@a%batch");
    refs &= is(packbuf_get(store, &newest, &getting, &object, &error), PACKBUF_OK) &&
            right_ref(&object.ref, "key/of@a%batch", &trip);
    packbuf_object_release(&object);
    options.write = by_pool;
    options.write_context = &pool;
    hook &= is(packbuf_put(store, "threads", &trip.batch, &options, &ref, &error), PACKBUF_OK) &&
            right_ref(&ref, "threads", &trip) && is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_OK) &&
            memcmp(object.views->base, trip.data, (size_t)trip.size) == 0;
    packbuf_object_release(&object);
    options.no_fingerprint = 1;
    hook &= is(packbuf_put(store, "threads", &trip.batch, &options, &ref, &error), PACKBUF_OK) &&
            ref.fingerprint[0] == 0 && ref.fingerprint[1] == 0;
    getting.fingerprint = NULL;
    mv_trip_end(&trip);
    mv_free();
  }
  getting.level = 0;
  packbuf_thread_pool_stop(&pool);
  tap_ok(bytes, "%s: C79: %u batches, plain and packed: the bytes are packbuf_write's", where, done);
  tap_ok(refs, "%s: C79: refs are right in every member", where);
  tap_ok(values, "%s: C79: rows read equal", where);
  tap_ok(hook, "%s: C80: a writer of 3 threads", where);
  audit("C80", 2);
  clear();
}

static int still_there(const packbuf_ref *ref, const mv_trip *trip) {
  packbuf_object object;
  int good = is(packbuf_get(store, ref, &getting, &object, &error), PACKBUF_OK);
  good = good && object.views->total_length == trip->size &&
         memcmp(object.views->base, trip->data, (size_t)trip->size) == 0;
  packbuf_object_release(&object);
  return good;
}

static void bad_keys(void) {
  char longest[PACKBUF_MAX_BATCH_KEY + 2];
  packbuf_ref ref;
  mv_trip trip;
  make(&trip, 3, 2, 0);
  memset(longest, 'k', sizeof longest);
  longest[PACKBUF_MAX_BATCH_KEY + 1] = 0;
  tap_ok(is(packbuf_put(store, longest, &trip.batch, &putting, &ref, &error), PACKBUF_INVALID_ARGUMENT) &&
             is(packbuf_put(store, "a#b", &trip.batch, &putting, &ref, &error), PACKBUF_INVALID_ARGUMENT) &&
             is(packbuf_put(store, "", &trip.batch, &putting, &ref, &error), PACKBUF_INVALID_ARGUMENT) &&
             is(packbuf_put(store, "a b", &trip.batch, &putting, &ref, &error), PACKBUF_INVALID_ARGUMENT) &&
             is(packbuf_put(store, longest + 1, &trip.batch, &putting, &ref, &error), PACKBUF_OK),
         "%s: keys of batches: 1 to 200 bytes, no '#'", where);
  tap_ok(is(packbuf_put(store, "a#b", &trip.batch, &putting, &ref, &error), PACKBUF_INVALID_ARGUMENT) &&
             strstr(error.message, "255 bytes") && strstr(error.message, "at most 200") &&
             is(packbuf_put(store, "a b", &trip.batch, &putting, &ref, &error), PACKBUF_INVALID_ARGUMENT) &&
             strstr(error.message, "255 bytes") && strstr(error.message, "blanks"),
         "%s: the error says what a key may be", where);
  tap_ok(is(packbuf_get_select(store, &ref, NULL, &getting, NULL, &error), PACKBUF_INVALID_ARGUMENT),
         "%s: nothing wanted", where);
  mv_trip_end(&trip);
  mv_free();
  audit("bad keys", 1);
  clear();
}

/* 400 batches, one of which cannot be packed, one with a bad key. */
static void many(void) {
  enum { N = 400 };
  static packbuf_ref refs[N];
  static packbuf_status statuses[N];
  static packbuf_object objects[N];
  static mv_trip trips[N];
  static packbuf_batch *batches[N];
  static const char *keys[N];
  char names[N][16];
  packbuf_text bad;
  int good = 1, got = 1;
  for (int i = 0; i < N; i++) {
    snprintf(names[i], sizeof names[i], i == 200 ? "k#%d" : "k%d", i);
    keys[i] = names[i];
    number_rows(&trips[i], (uint64_t)i * 10, 10, "m", 0);
    batches[i] = &trips[i].batch;
  }
  bad.data = "\xff";
  bad.size = 1;
  {
    packbuf_text cells[10];
    for (int i = 0; i < 10; i++) cells[i] = bad;
    packbuf_add_strings(batches[77], "bad", cells, &error);
    good &= is(packbuf_put_many(store, keys, batches, N, &putting, refs, statuses, &error), PACKBUF_BAD_UTF8) &&
            error.fragment == 77 && strcmp(error.path, "bad") == 0;
  }
  for (int i = 0; i < N; i++) {
    if (i == 77 || i == 200)
      good &= is(statuses[i], i == 77 ? PACKBUF_BAD_UTF8 : PACKBUF_INVALID_ARGUMENT) && refs[i].generation == 0;
    else good &= is(statuses[i], PACKBUF_OK) && right_ref(&refs[i], names[i], &trips[i]);
  }
  tap_ok(good, "%s: C81: of 400 batches two fail, by their own statuses", where);
  refs[77] = packbuf_ref_newest("nobody");
  refs[200] = refs[0];
  refs[200].generation++;
  refs[300].head_checksum ^= 1;
  good = is(packbuf_get_many(store, refs + 299, 2, NULL, &getting, objects, &error), PACKBUF_FRAGMENT_MISMATCH) &&
         error.row == 1;
  packbuf_object_release(&objects[0]);
  fail_at(3, PACKBUF_FAULT_CORRUPT, 140);
  good &=
      !(info.capabilities & PACKBUF_CAN_INJECT) ||
      (is(packbuf_get_many(store, refs, 4, NULL, &getting, objects, &error), PACKBUF_HEAD_CHECKSUM) && error.row == 3);
  no_faults();
  for (int i = 0; i < 4; i++) packbuf_object_release(&objects[i]);
  refs[300].head_checksum ^= 1;
  good &= is(packbuf_get_many(store, refs, N, NULL, &getting, objects, &error), PACKBUF_NOT_FOUND) && error.row == 77 &&
          strcmp(error.path, "nobody") == 0;
  for (int i = 0; i < N; i++) {
    if (i == 77 || i == 200)
      got &=
          is(objects[i].status, i == 77 ? PACKBUF_NOT_FOUND : PACKBUF_STALE) && !objects[i].views && !objects[i].inner;
    else
      got &= is(objects[i].status, PACKBUF_OK) &&
             memcmp(objects[i].views->base, trips[i].data, (size_t)trips[i].size) == 0;
    packbuf_object_release(&objects[i]);
  }
  tap_ok(good && got, "%s: 400 got at once, of which one is missing and one stale", where);
  tap_ok(is(packbuf_put_many(store, NULL, NULL, 0, &putting, NULL, NULL, &error), PACKBUF_OK) &&
             is(packbuf_get_many(store, NULL, 0, NULL, &getting, NULL, &error), PACKBUF_OK),
         "%s: none at all", where);
  audit("C81", N - 2);
  clear();
  for (int i = 0; i < N; i++) mv_trip_end(&trips[i]);
  mv_free();
}

/* A writer that fails at the batch it is told, or says that it wrote more than there is room for. */
typedef struct failing_writer {
  const packbuf_batch *at;
  int lies;
} failing_writer;

static packbuf_status write_or_fail(void *context, packbuf_batch *batch, void *dst, uint64_t capacity, uint64_t *size,
                                    packbuf_error *e) {
  const failing_writer *writer = (const failing_writer *)context;
  packbuf_status status = packbuf_write(batch, dst, capacity, size, e);
  if (writer->at != batch) return status;
  if (writer->lies) *size = capacity + 1;
  else *size = 0, memset(e, 0, sizeof *e), e->message = "as planned", status = e->code = PACKBUF_LOSSY;
  return status;
}

/* What fails after its room was reserved. */
static void writers_that_fail(void) {
  enum { N = 5 };
  packbuf_put_options options = putting;
  failing_writer writer;
  mv_trip trips[N];
  packbuf_batch *batches[N];
  packbuf_status statuses[N];
  packbuf_ref refs[N];
  const char *const keys[N] = {"w0", "w1", "w2", "w3", "w4"};
  int good = 1;
  for (int i = 0; i < N; i++) {
    number_rows(&trips[i], (uint64_t)i, 20 + (uint64_t)i, "w", 0);
    batches[i] = &trips[i].batch;
  }
  options.write = write_or_fail;
  options.write_context = &writer;
  writer.at = batches[1];
  for (writer.lies = 0; writer.lies < 2; writer.lies++) {
    const packbuf_status want = writer.lies ? PACKBUF_CAPACITY : PACKBUF_LOSSY;
    good &= is(packbuf_put(store, "w1", batches[1], &options, &refs[1], &error), want);
    good &=
        is(packbuf_put_many(store, keys, batches, N, &options, refs, statuses, &error), want) && error.fragment == 1;
    for (int i = 0; i < N; i++)
      good &= is(statuses[i], i == 1 ? want : PACKBUF_OK) &&
              (i == 1 || (right_ref(&refs[i], keys[i], &trips[i]) && still_there(&refs[i], &trips[i])));
  }
  tap_ok(good, "%s: a writer that fails, alone and among others", where);
  audit("writers that fail", N - 1);
  clear();
  for (int i = 0; i < N; i++) mv_trip_end(&trips[i]);
  mv_free();
}

/* More in one call than the memory holds. */
static void larger_than_memory(void) {
  enum { N = 5, BYTES = 16 << 20 };
  packbuf_batch batches[N], *list[N];
  packbuf_arena arena;
  packbuf_tensor t;
  packbuf_ref refs[N];
  packbuf_object object;
  const char *const keys[N] = {"big", "big", "big", "big", "big"};
  const uint64_t shape[1] = {BYTES};
  uint8_t *bytes = (uint8_t *)malloc(BYTES);
  int good = 1;
  for (unsigned i = 0; i < BYTES; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 24);
  packbuf_arena_init(&arena, NULL);
  t = array_of(bytes, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8), shape);
  for (int i = 0; i < N; i++) {
    good &= !packbuf_batch_init(&batches[i], BYTES, &arena, NULL, &error) &&
            !packbuf_add_tensor(&batches[i], "x", &t, NULL, &error);
    list[i] = &batches[i];
  }
  good &= is(packbuf_put_many(store, keys, list, N, &putting, refs, NULL, &error), PACKBUF_OK);
  good = good && is(packbuf_get(store, &refs[N - 1], &getting, &object, &error), PACKBUF_OK);
  packbuf_object_release(&object);
  for (int i = 0; i + 1 < N; i++) good = good && refs[i].generation < refs[i + 1].generation;
  tap_ok(good, "%s: 80 MiB put in one call where 64 fit", where);
  free(bytes);
  packbuf_arena_free(&arena);
  audit("80 MiB", 1);
  clear();
}

static void refs_as_text(void) {
  char text[PACKBUF_REF_TEXT];
  packbuf_object object;
  packbuf_ref ref, back;
  size_t size = 0;
  mv_trip trip;
  make(&trip, 20, 3, 0);
  tap_ok(is(packbuf_put(store, "text", &trip.batch, &putting, &ref, &error), PACKBUF_OK) &&
             is(packbuf_ref_write(&ref, text, sizeof text, &size, &error), PACKBUF_OK) &&
             is(packbuf_ref_parse(text, size, &back, &error), PACKBUF_OK) && memcmp(&ref, &back, sizeof ref) == 0 &&
             is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_OK),
         "%s: C82: a ref as text and back", where);
  packbuf_object_release(&object);
  back = ref, back.head_checksum ^= 1;
  tap_ok(is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_FRAGMENT_MISMATCH) && !object.inner &&
             object.status == PACKBUF_FRAGMENT_MISMATCH,
         "%s: C83: a ref of another checksum", where);
  back = ref, back.length += 4;
  tap_ok(is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_SHORT_READ),
         "%s: C83: of another length, larger", where);
  back = ref, back.length -= 4;
  tap_ok(is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_CAPACITY), "%s: C83: smaller", where);
  back = ref, back.fingerprint[3] ^= 1;
  tap_ok(is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_SCHEMA_MISMATCH),
         "%s: C83: of another schema", where);
  back = ref, back.head_length -= 64;
  tap_ok(is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_FRAGMENT_MISMATCH), "%s: of another head",
         where);
  back = ref, back.kind = PACKBUF_OBJECT_MANIFEST;
  tap_ok(is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_FRAGMENT_MISMATCH), "%s: of another kind",
         where);
  back = ref, back.fingerprint[3] ^= 1;
  getting.fingerprint = back.fingerprint;
  tap_ok(is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_SCHEMA_MISMATCH),
         "%s: another schema is expected", where);
  getting.fingerprint = NULL;
  memset(back.key, 'k', sizeof back.key);
  tap_ok(is(packbuf_get(store, &back, &getting, &object, &error), PACKBUF_INVALID_ARGUMENT) &&
             is(packbuf_remove(store, &back, PACKBUF_NO_WAIT, &error), PACKBUF_INVALID_ARGUMENT) &&
             is(packbuf_append(store, &back, &trip.batch, PACKBUF_APPENDS_ROWS, &putting, &back, &error),
                PACKBUF_INVALID_ARGUMENT),
         "%s: a key without an end", where);
  mv_trip_end(&trip);
  mv_free();
  audit("C83", 1);
  clear();
}

/* C82: a ref by way of a file, and another process that opens its URI. */
static void other_process(void) {
  char text[PACKBUF_REF_TEXT];
  size_t size = 0;
  packbuf_ref ref;
  mv_trip trip;
  FILE *file;
  pid_t child;
  int ended = 1;
  if (!(info.capabilities & PACKBUF_CAN_OUTLIVE)) return;
  make(&trip, 20, 3, 0);
  file = tmpfile();
  if (!file || !is(packbuf_put(store, "process", &trip.batch, &putting, &ref, &error), PACKBUF_OK) ||
      packbuf_ref_write(&ref, text, sizeof text, &size, &error) || fwrite(text, 1, size, file) != size || fflush(file))
    printf("Bail out! no ref in a file\n");
  child = fork();
  if (child == 0) {
    packbuf_store *own = NULL;
    packbuf_object object;
    int good;
    rewind(file);
    size = fread(text, 1, sizeof text, file);
    good = is(packbuf_ref_parse(text, size, &ref, &error), PACKBUF_OK) &&
           is(packbuf_store_open(ref.uri, NULL, &own, &error), PACKBUF_OK) &&
           is(packbuf_get(own, &ref, &getting, &object, &error), PACKBUF_OK) &&
           object.views->total_length == trip.size && memcmp(object.views->base, trip.data, (size_t)trip.size) == 0;
    if (good) packbuf_object_release(&object);
    _exit(good && packbuf_store_close(own, PACKBUF_FOREVER, &error) == PACKBUF_OK ? 0 : 1);
  }
  tap_ok(child > 0 && waitpid(child, &ended, 0) == child && ended == 0,
         "%s: C82: a ref in a file, got by another process", where);
  fclose(file);
  mv_trip_end(&trip);
  mv_free();
  audit("C82", 1);
  clear();
}

/* ---- C84, C85 ---- */

static int same_memory(const void *a, const void *b, uint64_t size) {
  return (!a && !b) || size == 0 || (a && b && memcmp(a, b, (size_t)size) == 0);
}

/* One node copied out of both. */
static const char *same_column(const packbuf_selection *a, const packbuf_selection *b, uint32_t node) {
  selecting_column x, y;
  const char *wrong = NULL;
  const uint64_t bytes = 8;
  selecting_copy(a, node, 1, 64, MOST_BYTES, &x, &error);
  selecting_copy(b, node, 1, 64, MOST_BYTES, &y, &error);
  if (x.status != PACKBUF_OK || y.status != PACKBUF_OK) wrong = packbuf_status_name(x.status ? x.status : y.status);
  else if (memcmp(&x.size, &y.size, sizeof x.size) != 0) wrong = "sizes";
  else if (!same_memory(x.into.data, y.into.data, x.size.data_bytes)) wrong = "data";
  else if (!same_memory(x.into.validity, y.into.validity, (x.size.rows + 7) / 8) ||
           !same_memory(x.into.missing, y.into.missing, (x.size.rows + 7) / 8))
    wrong = "masks";
  else if (!same_memory(x.into.types, y.into.types, x.size.rows > x.size.items ? x.size.rows : x.size.items))
    wrong = "types";
  else if (!same_memory(x.into.lengths, y.into.lengths, bytes * x.size.rows)) wrong = "lengths";
  selecting_column_free(&x);
  selecting_column_free(&y);
  return wrong;
}

/* All chosen columns of a selection, against those of the same selection of the whole. */
static const char *same_columns(const packbuf_selection *a, const packbuf_selection *whole) {
  if (a->rows != whole->rows || a->node_count != whole->node_count) return "rows or nodes";
  for (uint32_t i = 0; i < a->node_count; i++) {
    const char *wrong = a->flags[a->nodes[i]] == 2 ? same_column(a, whole, a->nodes[i]) : NULL;
    if (wrong) return wrong;
  }
  return NULL;
}

/* Some field that was not asked for, and whose data are not there. */
static int others_not_fetched(const packbuf_object *object) {
  packbuf_arena arena;
  packbuf_selection all;
  int refused = 0, wrong = 0;
  packbuf_arena_init(&arena, NULL);
  if (packbuf_select(object->views, 0, NULL, 0, packbuf_rows_all(), &arena, &all, &error)) return 0;
  for (uint32_t i = 0; i < all.node_count; i++) {
    selecting_column c;
    selecting_copy(&all, all.nodes[i], 0, 64, MOST_BYTES, &c, &error);
    refused += c.status == PACKBUF_NOT_FETCHED;
    wrong += c.status != PACKBUF_OK && c.status != PACKBUF_NOT_FETCHED;
    selecting_column_free(&c);
  }
  packbuf_arena_free(&arena);
  return refused > 0 && !wrong;
}

/* What `moved` should be: exactly head, index and ranges. */
static uint64_t should_move(const mv_trip *trip, const packbuf_selection *selections, size_t count,
                            const packbuf_wanted *wanted, packbuf_arena *arena) {
  packbuf_range *ranges = NULL;
  uint64_t n = 0, bytes = trip->view.head_length + trip->view.index_length;
  if (info.capabilities & PACKBUF_CAN_IN_PLACE) return 0;
  if (!(info.capabilities & PACKBUF_CAN_RANGES)) return trip->size;
  packbuf_select_ranges(selections, count, wanted->gap, wanted->flags, arena, &ranges, &n, &error);
  for (uint64_t i = 0; i < n; i++) bytes += ranges[i].length;
  return bytes;
}

static void select_some(void) {
  static const char *const patterns[] = {"f3", "f7", "f11"};
  static const int64_t list[] = {5, 1, 1, 250, -1};
  static uint8_t mask[300];
  packbuf_row_selection rows[6];
  const char *wrong = NULL;
  int good = 1, moved = 1, others = 1, looked = 0;
  for (int i = 0; i < 300; i++) mask[i] = i % 7 == 3;
  rows[0] = packbuf_rows_range(100, 140, 1), rows[1] = packbuf_rows_range(PACKBUF_ROWS_BEGIN, PACKBUF_ROWS_END, 8);
  rows[2] = packbuf_rows_index(list, 5), rows[3] = packbuf_rows_mask(mask, 300);
  rows[4] = packbuf_rows_range(7, 7, 1), rows[5] = packbuf_rows_all();
  for (unsigned round = 0; round < 4; round++) {
    packbuf_arena arena;
    packbuf_ref ref;
    mv_trip trip;
    make(&trip, 300, 20, round % 2 != 0);
    packbuf_arena_init(&arena, NULL);
    good &= is(packbuf_put(store, "select", &trip.batch, &putting, &ref, &error), PACKBUF_OK);
    for (unsigned k = 0; k < 12 && !wrong; k++) {
      packbuf_wanted wanted;
      packbuf_selection whole;
      packbuf_object object;
      const packbuf_ref newest = packbuf_ref_newest("select");
      memset(&wanted, 0, sizeof wanted);
      wanted.patterns = patterns;
      wanted.pattern_count = 3;
      wanted.rows = rows[k % 6];
      wanted.gap = k / 6 ? 1000 : 0;
      wanted.flags = k / 6 ? (unsigned)PACKBUF_RANGES_CHUNKS : 0u;
      getting.level = (uint8_t)(round % 2);
      good &=
          is(packbuf_get_select(store, k % 5 == 4 ? &newest : &ref, &wanted, &getting, &object, &error), PACKBUF_OK);
      if (!object.selection) break;
      packbuf_select(&trip.view, 0, patterns, 3, rows[k % 6], &arena, &whole, &error);
      wrong = same_columns(object.selection, &whole);
      moved &=
          object.moved == should_move(&trip, &whole, 1, &wanted, &arena) && right_ref(&object.ref, "select", &trip);
      if (k == 0 && (info.capabilities & (PACKBUF_CAN_RANGES | PACKBUF_CAN_IN_PLACE)) == PACKBUF_CAN_RANGES) {
        others &= others_not_fetched(&object);
        looked++;
      }
      packbuf_object_release(&object);
    }
    packbuf_arena_free(&arena);
    mv_trip_end(&trip);
    mv_free();
  }
  getting.level = 0;
  tap_ok(good && !wrong, "%s: C84: 3 of 20 fields, rows in 6 ways: columns as those of the whole%s%s", where,
         wrong ? ": " : "", wrong ? wrong : "");
  tap_ok(moved, "%s: C84: head, index and ranges are moved, and no byte more", where);
  if (looked) tap_ok(others, "%s: C84: other fields are NOT_FETCHED", where);
  audit("C84", 1);
  clear();
}

/* 64 keys at once, batch values too; a field that is not there. */
/* What a learner costs that wants 3 of 20 fields and an eighth of the rows, counted on the wire (bytes_moved, where it
 * can be seen) and by the object: head, index and these rows' share of these fields, and at most two blocks more for
 * each range, not what some selection says. */
static void select_a_part(void) {
  enum { ROWS = 4096, WIDTH = 32, FIELDS = 20, WANTED = 3 };
  static const char *const patterns[] = {"f3", "f7", "f11"};
  const uint64_t shape[2] = {ROWS, WIDTH};
  const int whole = !(info.capabilities & PACKBUF_CAN_RANGES);
  for (int packed = 0; packed < 2; packed++) {
    packbuf_options options = packbuf_default_options();
    packbuf_counters before, after;
    packbuf_wanted wanted;
    packbuf_object object;
    packbuf_ref ref;
    uint64_t most, fixed, wire;
    mv_trip trip;
    options.packing = packed ? PACKBUF_PACKING_BALANCED : PACKBUF_PACKING_NONE;
    mv_trip_begin(&trip, ROWS, &options);
    for (unsigned f = 0; f < FIELDS; f++) { /* numbers of 17 bits: each field, packed, is about half as long */
      int32_t *numbers = (int32_t *)mv_alloc(sizeof(int32_t) * ROWS * WIDTH);
      char name[8];
      packbuf_tensor t;
      for (unsigned i = 0; i < ROWS * WIDTH; i++) numbers[i] = (int32_t)(mv_random() >> 47);
      snprintf(name, sizeof name, "f%u", f);
      t = array_of(numbers, packbuf_dtype_of(PACKBUF_DTYPE_INT, 32), (const uint64_t *)mv_copy(shape, sizeof shape));
      t.rank = 2;
      packbuf_add_tensor(&trip.batch, (const char *)mv_copy(name, strlen(name)), &t, NULL, &trip.error);
    }
    pack(&trip);
    fixed = trip.view.head_length + trip.view.index_length;
    most = fixed + (trip.size - fixed) * WANTED / FIELDS / 8;
    most += WANTED * 2 * (packed ? 8192u : 64u); /* a block holds 8 KiB of elements; plain rows begin anywhere */
    memset(&wanted, 0, sizeof wanted);
    wanted.patterns = patterns;
    wanted.pattern_count = WANTED;
    wanted.rows = packbuf_rows_range(ROWS / 2, ROWS / 2 + ROWS / 8, 1);
    if (!is(packbuf_put(store, "part", &trip.batch, &putting, &ref, &error), PACKBUF_OK)) break;
    packbuf_store_counters(store, &before, NULL);
    if (!is(packbuf_get_select(store, &ref, &wanted, &getting, &object, &error), PACKBUF_OK)) break;
    packbuf_store_counters(store, &after, NULL);
    wire = after.bytes_moved - before.bytes_moved;
    tap_ok(object.moved <= most || whole, "%s: 3 of 20 fields, 1/8 of the rows, %s: %lu bytes of %lu, at most %lu",
           where, packed ? "packed" : "plain", (unsigned long)object.moved, (unsigned long)trip.size,
           (unsigned long)most);
    tap_ok(wire <= most + 2048 || whole, "%s: and no more on the wire but frames: %lu", where, (unsigned long)wire);
    packbuf_object_release(&object);
    mv_trip_end(&trip);
    mv_free();
  }
  clear();
}

static void select_many(void) {
  enum { N = 64 };
  static const char *const patterns[] = {"stext"}, *const absent[] = {"nothing"};
  static packbuf_object objects[N];
  packbuf_ref refs[N];
  mv_trip trips[N];
  packbuf_wanted wanted;
  const char *wrong = NULL;
  packbuf_arena arena;
  int good = 1;
  char key[16];
  packbuf_value seven = packbuf_int(7);
  memset(&wanted, 0, sizeof wanted);
  packbuf_arena_init(&arena, NULL);
  for (int i = 0; i < N; i++) {
    snprintf(key, sizeof key, "s%d", i);
    number_rows(&trips[i], (uint64_t)i, 100 + (uint64_t)i, "s", 0);
    packbuf_add_batch_value(&trips[i].batch, "step", &seven, &error);
    free(trips[i].data);
    if (mv_trip_pack(&trips[i])) printf("Bail out! pack\n");
    good &= is(packbuf_put(store, key, &trips[i].batch, &putting, &refs[i], &error), PACKBUF_OK);
  }
  wanted.patterns = patterns;
  wanted.pattern_count = 1;
  wanted.rows = packbuf_rows_range(10, 20, 1);
  wanted.values = 1;
  good &= is(packbuf_get_many(store, refs, N, &wanted, &getting, objects, &error), PACKBUF_OK);
  for (int i = 0; good && !wrong && i < N; i++) {
    packbuf_selection whole[2];
    packbuf_value value;
    packbuf_select(&trips[i].view, 0, patterns, 1, wanted.rows, &arena, &whole[0], &error);
    packbuf_select(&trips[i].view, 1, NULL, 0, packbuf_rows_all(), &arena, &whole[1], &error);
    wrong = same_columns(objects[i].selection, &whole[0]);
    if (!wrong) wrong = same_columns(objects[i].values, &whole[1]);
    good &= objects[i].moved == should_move(&trips[i], whole, 2, &wanted, &arena);
    good &= !packbuf_read_batch_values(objects[i].views, &arena, &value, &error) && value.as.dict.count == 1 &&
            value.as.dict.entries[0].value.as.i == 7;
  }
  for (int i = 0; i < N; i++) packbuf_object_release(&objects[i]);
  tap_ok(good && !wrong, "%s: C84: rows and batch values of 64 keys%s%s", where, wrong ? ": " : "", wrong ? wrong : "");
  wanted.patterns = absent;
  good = is(packbuf_get_many(store, refs, 3, &wanted, &getting, objects, &error), PACKBUF_NOT_FOUND) &&
         strcmp(error.path, "nothing") == 0;
  wanted.flags = 2;
  good &= is(packbuf_get_many(store, refs, 1, &wanted, &getting, objects, &error), PACKBUF_INVALID_ARGUMENT);
  tap_ok(good, "%s: a field that is not there; a flag that is unknown", where);
  audit("64 keys", N);
  clear();
  packbuf_arena_free(&arena);
  for (int i = 0; i < N; i++) mv_trip_end(&trips[i]);
  mv_free();
}

/* Puts a batch with one byte turned. */
static packbuf_ref damage(const packbuf_ref *ref, const mv_trip *trip, uint64_t at) {
  packbuf_ref damaged = *ref;
  packbuf_item item;
  memset(&item, 0, sizeof item);
  trip->data[at] ^= 0xFF;
  item.key = ref->key;
  item.from = trip->data;
  item.size = trip->size;
  item.about = ref;
  is(packbuf_batch_put(store, &item, 1, putting.deadline, &error), PACKBUF_OK);
  trip->data[at] ^= 0xFF;
  damaged.generation = item.stat.generation;
  return damaged;
}

/* C70, C85: bytes that are wrong, in the head, in chunks that are asked for and in others. */
static void corrupted(void) {
  static const char *const patterns[] = {"atext"};
  packbuf_wanted wanted;
  packbuf_object object;
  packbuf_ref ref, damaged;
  mv_trip trip;
  uint64_t data;
  if (!(info.capabilities & PACKBUF_CAN_INJECT)) return;
  number_rows(&trip, 0, 4000, "a", 0);
  data = trip.view.head_length + trip.view.index_length;
  memset(&wanted, 0, sizeof wanted);
  wanted.patterns = patterns;
  wanted.pattern_count = 1;
  wanted.flags = PACKBUF_RANGES_CHUNKS;
  wanted.rows = packbuf_rows_range(2000, 2100, 1);
  tap_ok(is(packbuf_put(store, "c", &trip.batch, &putting, &ref, &error), PACKBUF_OK) && trip.size - data > 400000,
         "%s: a batch of some chunks", where);
  fail_at(0, PACKBUF_FAULT_CORRUPT, 140);
  tap_ok(is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_HEAD_CHECKSUM),
         "%s: C70: a head that is damaged", where);
  fail_at(0, PACKBUF_FAULT_CORRUPT, trip.size - 10000);
  getting.level = PACKBUF_LEVEL_FULL;
  tap_ok(is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_DATA_CHECKSUM), "%s: C70: data, verified",
         where);
  getting.level = PACKBUF_LEVEL_INDEX;
  fail_at(0, PACKBUF_FAULT_CORRUPT, trip.size - 10000);
  tap_ok(is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_OK), "%s: C70: data, not verified", where);
  packbuf_object_release(&object);
  no_faults();
  getting.level = 0;
  damaged = damage(&ref, &trip, trip.size - 10000);
  tap_ok(is(packbuf_get_select(store, &damaged, &wanted, &getting, &object, &error), PACKBUF_OK),
         "%s: C85: a chunk beside those that are fetched", where);
  packbuf_object_release(&object);
  damaged = damage(&ref, &trip, data + 4000 * 8 + 2050 * 130);
  tap_ok(is(packbuf_get_select(store, &damaged, &wanted, &getting, &object, &error), PACKBUF_DATA_CHECKSUM) &&
             error.rule == PACKBUF_RULE_D1,
         "%s: C85: one of those", where);
  wanted.flags = 0;
  tap_ok(is(packbuf_get_select(store, &damaged, &wanted, &getting, &object, &error), PACKBUF_OK),
         "%s: C85: not verified", where);
  packbuf_object_release(&object);
  getting.level = PACKBUF_LEVEL_FULL;
  tap_ok(is(packbuf_get_select(store, &damaged, &wanted, &getting, &object, &error), PACKBUF_DATA_CHECKSUM),
         "%s: C85: the same by the level", where);
  getting.level = 0;
  fail_at(0, PACKBUF_FAULT_CORRUPT, 140);
  tap_ok(is(packbuf_get_select(store, &damaged, &wanted, &getting, &object, &error), PACKBUF_HEAD_CHECKSUM),
         "%s: C85: the head", where);
  for (unsigned i = 0; i < 2; i++) {
    fail_at(0, PACKBUF_FAULT_SHORTEN, i ? ref.head_length - 1 : 0);
    tap_ok(is(packbuf_get_select(store, &damaged, &wanted, &getting, &object, &error), PACKBUF_SHORT_READ),
           "%s: C68: cut short", where);
  }
  no_faults();
  mv_trip_end(&trip);
  mv_free();
  audit("C85", 1);
  clear();
}

/* ---- C86 to C90: appends ---- */

/* Without PACKBUF_CAN_REMOVE_NOW, leases of the engine may delay what is asked. */
static int removes(const packbuf_ref *ref) {
  const packbuf_status status = packbuf_remove(store, ref, PACKBUF_NO_WAIT, &error);
  return (status == PACKBUF_LEASED && !(info.capabilities & PACKBUF_CAN_REMOVE_NOW)) || is(status, PACKBUF_OK);
}

/* Rows first to first + count of a join against the numbers that make them. */
static int join_reads(const packbuf_join *join, const char *name, uint64_t rows) {
  packbuf_arena arena;
  packbuf_value *values;
  int good = join && join->rows == rows;
  packbuf_arena_init(&arena, NULL);
  values = (packbuf_value *)malloc((size_t)(rows + 1) * sizeof *values);
  good = good && is(packbuf_join_read_column(join, name, 0, rows, &arena, values, &error), PACKBUF_OK);
  for (uint64_t i = 0; good && i < rows; i++) good = values[i].as.i == (int64_t)i * 7919 % 104729;
  free(values);
  packbuf_arena_free(&arena);
  return good;
}

/* The join of an object, packed, against packbuf_concat of the parts. */
static int same_as_concat(const packbuf_object *object, const packbuf_view *views, uint64_t count) {
  packbuf_arena arena;
  packbuf_batch one, other;
  void *a = NULL, *b = NULL;
  uint64_t x = 0, y = 0;
  int good;
  packbuf_arena_init(&arena, NULL);
  good = is(packbuf_join_batch(object->join, &arena, NULL, &one, &error), PACKBUF_OK) &&
         is(packbuf_pack(&one, &a, &x, &error), PACKBUF_OK) &&
         is(packbuf_concat(views, count, 0, &arena, NULL, &other, &error), PACKBUF_OK) &&
         is(packbuf_pack(&other, &b, &y, &error), PACKBUF_OK) && x == y && memcmp(a, b, (size_t)x) == 0;
  packbuf_arena_free(&arena);
  return good;
}

/* Whether the store lists so many objects whose keys begin like this; 1 where it lists none at all. */
static int lists(const char *prefix, uint64_t objects) {
  packbuf_listed listed[64];
  uint64_t cursor = 0, count = 0, all = 0;
  if (!(info.capabilities & PACKBUF_CAN_LIST)) return 1;
  do {
    if (packbuf_store_list(store, prefix, &cursor, listed, 64, &count, PACKBUF_FOREVER, NULL)) return 0;
    all += count;
  } while (cursor);
  return all == objects;
}

typedef struct chain {
  mv_trip parts[4];
  packbuf_ref refs[4]; /* the batch; after each append */
} chain;

/* 100 rows, 50 more, 70 more, and fields for all 220. */
static int make_chain(chain *c, const char *key) {
  int good;
  number_rows(&c->parts[0], 0, 100, "a", 9);
  number_rows(&c->parts[1], 100, 50, "a", 9);
  number_rows(&c->parts[2], 150, 70, "a", 9);
  number_rows(&c->parts[3], 0, 220, "b", 9);
  good = is(packbuf_put(store, key, &c->parts[0].batch, &putting, &c->refs[0], &error), PACKBUF_OK);
  for (int i = 1; good && i < 4; i++)
    good = is(packbuf_append(store, &c->refs[i - 1], &c->parts[i].batch,
                             i < 3 ? PACKBUF_APPENDS_ROWS : PACKBUF_APPENDS_FIELDS, &putting, &c->refs[i], &error),
              PACKBUF_OK);
  return good;
}

static void end_chain(chain *c) {
  for (int i = 0; i < 4; i++) mv_trip_end(&c->parts[i]);
  mv_free();
}

static void appends(void) {
  static const uint8_t no_schemas[PACKBUF_FINGERPRINT] = {1};
  chain c;
  packbuf_object object;
  packbuf_view views[3];
  packbuf_ref again, newest;
  int good = make_chain(&c, "append"), read = 1;
  for (int i = 0; i < 3; i++) views[i] = c.parts[i].view;
  good = good && c.refs[3].kind == PACKBUF_OBJECT_MANIFEST && strncmp(c.refs[3].key, "append#m", 8) == 0 &&
         memcmp(c.refs[2].fingerprint, c.refs[0].fingerprint, 16) == 0;
  tap_ok(good, "%s: C86: rows twice, fields once", where);
  getting.fingerprint = c.refs[0].fingerprint;
  getting.level = PACKBUF_LEVEL_FULL;
  read = is(packbuf_get(store, &c.refs[2], &getting, &object, &error), PACKBUF_OK) && object.view_count == 3 &&
         join_reads(object.join, "anumber", 220) && same_as_concat(&object, views, 3);
  read = read && (info.capabilities & PACKBUF_CAN_IN_PLACE
                      ? object.moved == 0
                      : object.moved == c.refs[2].length + c.parts[0].size + c.parts[1].size + c.parts[2].size);
  packbuf_object_release(&object);
  read &= is(packbuf_get(store, &c.refs[3], &getting, &object, &error), PACKBUF_UNSUPPORTED_OPERATION) &&
          error.fragment == 3;
  getting.fingerprint = no_schemas; /* not that the first fragment has another schema */
  read &= is(packbuf_get(store, &c.refs[3], &getting, &object, &error), PACKBUF_UNSUPPORTED_OPERATION) &&
          error.fragment == 3 && is(packbuf_get(store, &c.refs[2], &getting, &object, &error), PACKBUF_SCHEMA_MISMATCH);
  getting.fingerprint = NULL;
  getting.level = 0;
  read = read && is(packbuf_get(store, &c.refs[3], &getting, &object, &error), PACKBUF_OK) && object.view_count == 4 &&
         join_reads(object.join, "anumber", 220) && join_reads(object.join, "bnumber", 220);
  packbuf_object_release(&object);
  tap_ok(read, "%s: C86: the join is packbuf_concat's", where);
  tap_ok(still_there(&c.refs[0], &c.parts[0]) &&
             is(packbuf_get(store, &c.refs[1], &getting, &object, &error), PACKBUF_OK) &&
             join_reads(object.join, "anumber", 150),
         "%s: C86: the old refs are good", where);
  packbuf_object_release(&object);
  { /* what is put under the key later is not the fragment */
    mv_trip other;
    make(&other, 3, 2, 0);
    good = is(packbuf_append(store, &c.refs[0], &c.parts[1].batch, PACKBUF_APPENDS_ROWS, &putting, &again, &error),
              PACKBUF_OK) &&
           strcmp(again.key, c.refs[1].key) != 0;
    tap_ok(good && is(packbuf_get(store, &again, &getting, &object, &error), PACKBUF_OK) &&
               join_reads(object.join, "anumber", 150),
           "%s: C87: two appends to one ref", where);
    packbuf_object_release(&object);
    tap_ok(is(packbuf_put(store, "append", &other.batch, &putting, &newest, &error), PACKBUF_OK) &&
               is(packbuf_get(store, &again, &getting, &object, &error), PACKBUF_STALE) && error.fragment == 0,
           "%s: a manifest never joins a newer object of a fragment's key", where);
    mv_trip_end(&other);
  }
  tap_ok(removes(&again) && removes(&c.refs[3]) && lists("append#", 0) && lists("append", 1),
         "%s: C86: after the removals only what was put later is left", where);
  tap_ok(removes(&c.refs[3]) && removes(&c.refs[0]), "%s: removed again", where);
  newest = packbuf_ref_newest("append");
  tap_ok(removes(&newest), "%s: whatever is newest", where);
  audit("C87", 0);
  end_chain(&c);
}

static void refused_appends(void) {
  chain c;
  mv_trip other, fewer;
  packbuf_ref ref, newest;
  int good = make_chain(&c, "r");
  number_rows(&other, 0, 220, "c", 8);
  number_rows(&fewer, 0, 200, "d", 9);
  tap_ok(good && is(packbuf_append(store, &c.refs[2], &other.batch, PACKBUF_APPENDS_FIELDS, &putting, &ref, &error),
                    PACKBUF_ROW_ORDER),
         "%s: fields of another row order", where);
  tap_ok(is(packbuf_append(store, &c.refs[2], &fewer.batch, PACKBUF_APPENDS_FIELDS, &putting, &ref, &error),
            PACKBUF_ROW_COUNT),
         "%s: of another number of rows", where);
  tap_ok(is(packbuf_append(store, &c.refs[3], &c.parts[3].batch, PACKBUF_APPENDS_FIELDS, &putting, &ref, &error),
            PACKBUF_DUPLICATE_NAME),
         "%s: that are there", where);
  newest = packbuf_ref_newest("nothing");
  tap_ok(is(packbuf_append(store, &newest, &c.parts[3].batch, PACKBUF_APPENDS_ROWS, &putting, &ref, &error),
            PACKBUF_NOT_FOUND),
         "%s: rows to nothing", where);
  newest = packbuf_ref_newest(c.refs[1].key);
  tap_ok(
      is(packbuf_append(store, &newest, &c.parts[2].batch, PACKBUF_APPENDS_ROWS, &putting, &ref, &error), PACKBUF_OK) &&
          ref.kind == PACKBUF_OBJECT_MANIFEST && strncmp(ref.key, "r#m", 3) == 0,
      "%s: to whatever is newest", where);
  newest = packbuf_ref_newest(ref.key);
  tap_ok(removes(&newest), "%s: removed as the newest", where);
  removes(&c.refs[3]);
  audit("refused appends", 0);
  mv_trip_end(&other);
  mv_trip_end(&fewer);
  end_chain(&c);
}

/* A batch of one row for drifted_appends: the dtype of field "x", what else it has. */
static void drifting(mv_trip *trip, packbuf_dtype dtype, const char *value, const char *text, const char *other) {
  static const uint64_t zero[1] = {0}, one[1] = {1};
  packbuf_value number = packbuf_int(7);
  packbuf_tensor t = array_of(zero, dtype, one);
  mv_trip_begin(trip, 1, NULL);
  packbuf_add_tensor(&trip->batch, "x", &t, NULL, &trip->error);
  if (other) packbuf_add_tensor(&trip->batch, other, &t, NULL, &trip->error);
  if (value) {
    number = packbuf_string(value);
    packbuf_add_batch_value(&trip->batch, "worker", &number, &trip->error);
  }
  if (text) packbuf_add_metadata(&trip->batch, "x", "unit", text, &trip->error);
  if (mv_trip_pack(trip)) printf("Bail out! %s\n", mv_error(&trip->error));
}

/* C92: what a get of the whole would refuse, the append refuses, and puts nothing; what it would join is taken. To a
 * batch, and to one that was appended to before. */
static void drifted_appends(void) {
  enum { CASES = 8 };
  const packbuf_dtype i64 = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), f32 = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
  const struct {
    const char *what;
    packbuf_dtype dtype;
    const char *value, *text, *other;
    uint8_t needs; /* join_flags with which it is joined */
    const char *path;
  } cases[CASES] = {{"the same", i64, "a", "s", NULL, 0, NULL},
                    {"without batch values and metadata", i64, NULL, NULL, NULL, 0, NULL},
                    {"another dtype", f32, "a", "s", NULL, PACKBUF_WIDEN, "x"},
                    {"a field more", i64, "a", "s", "y", PACKBUF_WIDEN, "y"},
                    {"another batch value", i64, "b", "s", NULL, PACKBUF_FIRST_VALUE, "worker"},
                    {"other metadata", i64, "a", "ms", NULL, PACKBUF_FIRST_VALUE, "unit"},
                    {"another dtype, without metadata", f32, NULL, NULL, NULL, PACKBUF_WIDEN, "x"},
                    {"all of it", f32, "b", "ms", "y", PACKBUF_WIDEN | PACKBUF_FIRST_VALUE, "x"}};
  for (unsigned i = 0; i < CASES; i++)
    for (unsigned chained = 0; chained < 2; chained++)
      for (unsigned flags = 0; flags < 4; flags++) {
        packbuf_put_options options = putting;
        packbuf_get_options joined = getting;
        packbuf_ref first, whole;
        packbuf_object object;
        packbuf_batch batch;
        packbuf_arena arena;
        mv_trip old, more, drift;
        const int fits = (cases[i].needs & ~flags) == 0;
        int good = 1;
        drifting(&old, i64, "a", "s", NULL);
        drifting(&more, i64, NULL, NULL, NULL);
        drifting(&drift, cases[i].dtype, cases[i].value, cases[i].text, cases[i].other);
        good = is(packbuf_put(store, "d", &old.batch, &putting, &first, &error), PACKBUF_OK);
        if (chained)
          good &= is(packbuf_append(store, &first, &more.batch, PACKBUF_APPENDS_ROWS, &putting, &first, &error),
                     PACKBUF_OK);
        options.join_flags = joined.join_flags = (uint8_t)flags;
        good = good && is(packbuf_append(store, &first, &drift.batch, PACKBUF_APPENDS_ROWS, &options, &whole, &error),
                          fits ? PACKBUF_OK : PACKBUF_SCHEMA_MISMATCH);
        if (good && !fits && flags == 0) good = strcmp(error.path, cases[i].path) == 0;
        if (good && !fits && flags == 0 && cases[i].path[0] == 'x')
          good = strcmp(error.expected, "ndarray int64 natural []") == 0 &&
                 strcmp(error.found, "ndarray float32 natural []") == 0;
        if (good && !fits) good = lists("d", chained ? 3 : 1);
        if (good && fits) {
          packbuf_arena_init(&arena, NULL);
          good = is(packbuf_get(store, &whole, &joined, &object, &error), PACKBUF_OK) &&
                 is(packbuf_join_batch(object.join, &arena, NULL, &batch, &error), PACKBUF_OK);
          packbuf_object_release(&object);
          packbuf_arena_free(&arena);
          removes(&whole);
        }
        if (!good || flags == 0)
          tap_ok(good, "%s: C92: %s, appended to %s, flags %u: %s", where, cases[i].what,
                 chained ? "an appended batch" : "a batch", flags, fits ? "taken" : "refused");
        removes(&first);
        mv_trip_end(&old);
        mv_trip_end(&more);
        mv_trip_end(&drift);
        mv_free();
        clear();
      }
  audit("C92", 0);
}

/* What is no packed buffer says so, and how its bytes are got. */
static void no_packed_buffer(void) {
  static const char longer[] = "eighty bytes or so, and then some more, so that a header of 128 bytes could be there, "
                               "which it is not, as this is text. And so it goes on.";
  const char *const bytes[] = {"some text", "x", longer};
  const packbuf_ref ref = packbuf_ref_newest("text");
  int good = 1;
  for (int i = 0; i < 3; i++) {
    packbuf_object object;
    packbuf_item item;
    memset(&item, 0, sizeof item);
    item.key = "text";
    item.from = bytes[i];
    item.size = strlen(bytes[i]);
    good &= is(packbuf_batch_put(store, &item, 1, putting.deadline, &error), PACKBUF_OK) &&
            is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_BAD_MAGIC) &&
            error.rule == PACKBUF_RULE_NONE && strstr(error.message, "packbuf_batch_get") &&
            strcmp(error.path, "text") == 0;
  }
  tap_ok(good, "%s: bytes that are no packed buffer: BAD_MAGIC, and what to do", where);
  clear();
}

/* C67, C88, C89: the i-th item of each call fails. */
static void broken_off(void) {
  enum { WHAT = 5 };
  static const char *const names[WHAT] = {"put_many", "get_many", "get_select", "append", "remove"};
  chain c;
  if (!(info.capabilities & PACKBUF_CAN_INJECT)) return;
  for (int what = 0; what < WHAT; what++) {
    int good = make_chain(&c, "chain"), ended = 0;
    uint64_t i = 0;
    for (; good && !ended && i < 40; i++) {
      const char *keys[3] = {"x", "y", "z"};
      packbuf_batch *batches[3];
      packbuf_object objects[2];
      packbuf_wanted wanted;
      packbuf_ref ref;
      packbuf_status status = PACKBUF_OK;
      memset(objects, 0, sizeof objects);
      memset(&wanted, 0, sizeof wanted);
      wanted.rows = packbuf_rows_all();
      for (int k = 0; k < 3; k++) batches[k] = &c.parts[k].batch;
      fail_at(i, PACKBUF_FAULT_FAIL, PACKBUF_PROTOCOL);
      for (int again = 0; again < 2; again++) {
        switch (what) {
          case 0: status = packbuf_put_many(store, keys, batches, 3, &putting, NULL, NULL, &error); break;
          case 1: status = packbuf_get_many(store, &c.refs[2], 2, NULL, &getting, objects, &error); break;
          case 2: status = packbuf_get_many(store, &c.refs[2], 2, &wanted, &getting, objects, &error); break;
          case 3:
            status =
                packbuf_append(store, &c.refs[2], &c.parts[3].batch, PACKBUF_APPENDS_FIELDS, &putting, &ref, &error);
            break;
          default: status = packbuf_remove(store, &c.refs[3], PACKBUF_NO_WAIT, &error);
        }
        if (what == 1 || what == 2)
          for (int k = 0; k < 2; k++) packbuf_object_release(&objects[k]);
        if (!again) ended = status == PACKBUF_OK;
        else good &= is(status, PACKBUF_OK);
        if (!again && !ended) good &= is(status, PACKBUF_PROTOCOL);
        no_faults();
        if (ended) break;
      }
      if (what == 4) {
        good &= lists("chain", 0);
        end_chain(&c);
        good &= make_chain(&c, "chain");
      }
      if (what == 3) {
        good &= lists("chain#f", 3 + i + 1); /* no orphans */
      }
    }
    tap_ok(good && ended, "%s: C67: %s: each of %d items fails, and is repeated", where, names[what], (int)i - 1);
    clear();
    audit(names[what], 0);
    end_chain(&c);
  }
}

/* C88: an append that ends between its two puts leaves a fragment that nothing lists. */
static void orphan(void) {
  chain c;
  packbuf_ref ref;
  int good = make_chain(&c, "o");
  if (info.capabilities & PACKBUF_CAN_INJECT) {
    fail_at(2, PACKBUF_FAULT_FAIL, PACKBUF_DISCONNECTED);
    tap_ok(good &&
               is(packbuf_append(store, &c.refs[0], &c.parts[1].batch, PACKBUF_APPENDS_ROWS, &putting, &ref, &error),
                  PACKBUF_DISCONNECTED) &&
               lists("o#f", 4) && lists("o#m", 3) && still_there(&c.refs[0], &c.parts[0]),
           "%s: C88: an append that is gone between its two puts", where);
    no_faults();
  }
  removes(&c.refs[3]);
  clear();
  audit("C88", 0);
  end_chain(&c);
}

/* Whether the selections of a manifest's fragments hold these rows of the whole: each fragment its own, in order. */
static int holds_rows(const packbuf_object *object, const packbuf_selection *whole) {
  uint64_t at[3] = {0, 0, 0}, first[4] = {0, 0, 0, 0};
  static int64_t got[3][400];
  int good = object->view_count == 4 && object->selection[3].rows == whole->rows;
  for (uint32_t f = 0; good && f < 3; f++) {
    const packbuf_selection *s = &object->selection[f];
    packbuf_select_into into;
    packbuf_node node;
    first[f + 1] = first[f] + object->views[f].rows;
    memset(&into, 0, sizeof into);
    into.data = got[f];
    into.data_capacity = sizeof got[f];
    good = !packbuf_find(s->view, 0, "anumber", &node, &error) &&
           is(packbuf_select_copy(s, node.index, &into, NULL, &error), PACKBUF_OK);
  }
  for (uint64_t i = 0; good && i < whole->rows; i++) {
    const uint64_t row = packbuf_selected_row(whole, i);
    const uint32_t f = row < first[1] ? 0 : row < first[2] ? 1 : 2;
    good = got[f][at[f]++] == (int64_t)row * 7919 % 104729 && packbuf_selected_row(&object->selection[3], i) == row;
  }
  for (uint32_t f = 0; good && f < 3; f++) good = at[f] == object->selection[f].rows;
  return good;
}

/* C90: rows of a manifest by lists and masks. */
static void lists_of_manifest(const chain *c, packbuf_wanted *wanted) {
  static const int64_t some[] = {1, 5, 2}, borders[] = {219, 99, 100, 0, 149, 150, -1, 100, 100, -220}, none[] = {0},
                       beyond[] = {3, 220};
  uint8_t mask[220];
  packbuf_row_selection rows[4];
  int good = 1, moved = 1;
  packbuf_object object;
  for (unsigned i = 0; i < sizeof mask; i++) mask[i] = i % 7 == 3 || (i > 95 && i < 105);
  rows[0] = packbuf_rows_index(some, 3);
  rows[1] = packbuf_rows_index(borders, sizeof borders / sizeof *borders);
  rows[2] = packbuf_rows_index(none, 0);
  rows[3] = packbuf_rows_mask(mask, sizeof mask);
  memset(&object, 0, sizeof object);
  for (unsigned k = 0; good && k < 4; k++) {
    packbuf_arena arena;
    packbuf_selection whole;
    uint64_t heads = c->refs[3].length, ranges = 0, count = 0;
    packbuf_arena_init(&arena, NULL);
    wanted->rows = rows[k];
    good = is(packbuf_get_select(store, &c->refs[3], wanted, &getting, &object, &error), PACKBUF_OK) &&
           is(packbuf_select(&c->parts[3].view, 0, NULL, 0, rows[k], &arena, &whole, &error), PACKBUF_OK) &&
           holds_rows(&object, &whole);
    for (uint32_t f = 0; good && f < 4; f++) {
      packbuf_range *list = NULL;
      heads += object.views[f].head_length + object.views[f].index_length;
      if (packbuf_select_ranges(&object.selection[f], 1, 0, 0, &arena, &list, &count, &error)) good = 0;
      for (uint64_t i = 0; i < count; i++) ranges += list[i].length;
    }
    if (info.capabilities & PACKBUF_CAN_IN_PLACE) moved &= object.moved == 0;
    else if (info.capabilities & PACKBUF_CAN_RANGES) moved &= object.moved == heads + ranges;
    packbuf_object_release(&object);
    packbuf_arena_free(&arena);
    if (!good) tap_note("list %u", k);
  }
  tap_ok(good, "%s: C90: lists and masks of rows of a manifest", where);
  tap_ok(moved, "%s: C90: of lists too no byte more is moved", where);
  wanted->rows = packbuf_rows_index(beyond, 2);
  tap_ok(is(packbuf_get_select(store, &c->refs[3], wanted, &getting, &object, &error), PACKBUF_OUT_OF_RANGE) &&
             error.row == 1,
         "%s: a list that goes beyond the whole", where);
  wanted->rows = packbuf_rows_mask(mask, 219);
  tap_ok(is(packbuf_get_select(store, &c->refs[3], wanted, &getting, &object, &error), PACKBUF_ROW_COUNT),
         "%s: a mask that is too short for the whole", where);
}

/* C90: fields that some fragments have and others have not. */
static void fields_of_manifest(const chain *c, packbuf_wanted *wanted) {
  static const char *const without[] = {"!b*", "btext"}, *const absent[] = {"anumber", "zzz"},
                           *const but[] = {"!btext"};
  const packbuf_selection *s;
  packbuf_object object;
  int good;
  wanted->rows = packbuf_rows_all();
  wanted->patterns = without;
  good = is(packbuf_get_select(store, &c->refs[3], wanted, &getting, &object, &error), PACKBUF_OK);
  s = object.selection;
  tap_ok(good && s[0].node_count == 2 && s[1].node_count == 2 && s[3].node_count == 1,
         "%s: what is taken away lies in one fragment alone", where);
  packbuf_object_release(&object);
  wanted->patterns = but;
  wanted->pattern_count = 1;
  good = is(packbuf_get_select(store, &c->refs[3], wanted, &getting, &object, &error), PACKBUF_OK);
  s = object.selection;
  tap_ok(good && s[0].node_count == 2 && s[3].node_count == 1, "%s: all but one field", where);
  packbuf_object_release(&object);
  wanted->patterns = without + 1;
  good = is(packbuf_get_select(store, &c->refs[3], wanted, &getting, &object, &error), PACKBUF_OK);
  s = object.selection;
  tap_ok(good && s[0].node_count == 0 && s[0].rows == 100 && s[3].node_count == 1, "%s: one field, of one fragment",
         where);
  packbuf_object_release(&object);
  wanted->patterns = absent;
  wanted->pattern_count = 2;
  tap_ok(is(packbuf_get_select(store, &c->refs[3], wanted, &getting, &object, &error), PACKBUF_NOT_FOUND) &&
             strcmp(error.path, "zzz") == 0,
         "%s: a field that no fragment has", where);
}

/* C90: some fields and rows of a manifest. */
static void select_of_manifest(void) {
  static const char *const patterns[] = {"anumber", "btext"};
  static const struct {
    int64_t first, stop, step;
  } cases[] = {{90, 160, 1},
               {0, 220, 1},
               {99, 101, 1},
               {3, 220, 17},
               {219, PACKBUF_ROWS_BEGIN, -1},
               {200, 20, -13},
               {160, 220, 1},
               {5, 5, 1},
               {-30, PACKBUF_ROWS_END, 7},
               {0, 1, 1},
               {149, 148, -1}};
  packbuf_wanted wanted;
  packbuf_object object;
  chain c;
  int good = make_chain(&c, "m"), moved = 1;
  memset(&wanted, 0, sizeof wanted);
  wanted.patterns = patterns;
  wanted.pattern_count = 2;
  for (size_t k = 0; good && k < sizeof cases / sizeof *cases; k++) {
    static int64_t got[220];
    packbuf_arena arena;
    packbuf_selection whole;
    uint64_t heads = c.refs[3].length, ranges = 0, count = 0, at = 0;
    const int down = cases[k].step < 0;
    packbuf_arena_init(&arena, NULL);
    wanted.rows = packbuf_rows_range(cases[k].first, cases[k].stop, cases[k].step);
    good = is(packbuf_get_select(store, &c.refs[3], &wanted, &getting, &object, &error), PACKBUF_OK) &&
           object.view_count == 4 && object.join && object.join->rows == 220;
    packbuf_select(&c.parts[3].view, 0, NULL, 0, wanted.rows, &arena, &whole, &error);
    for (uint32_t f = 0; good && f < 3; f++) { /* parts of rows, the last first where they go down */
      const packbuf_selection *s = &object.selection[down ? 2 - f : f];
      packbuf_select_into into;
      packbuf_node node;
      memset(&into, 0, sizeof into);
      into.data = got + at;
      into.data_capacity = sizeof got - at * 8;
      good = s->node_count == 1 && !packbuf_find(s->view, 0, "anumber", &node, &error) &&
             is(packbuf_select_copy(s, node.index, &into, NULL, &error), PACKBUF_OK);
      at += s->rows;
    }
    good = good && at == whole.rows && object.selection[3].rows == whole.rows && object.selection[3].node_count == 1;
    for (uint64_t i = 0; good && i < at; i++) good = got[i] == (int64_t)packbuf_selected_row(&whole, i) * 7919 % 104729;
    for (uint32_t f = 0; good && f < 4; f++) {
      packbuf_range *list = NULL;
      heads += object.views[f].head_length + object.views[f].index_length;
      if (packbuf_select_ranges(&object.selection[f], 1, 0, 0, &arena, &list, &count, &error)) good = 0;
      for (uint64_t i = 0; i < count; i++) ranges += list[i].length;
    }
    for (uint64_t i = 0; good && i < whole.rows; i++) { /* all of the text is there */
      packbuf_node node;
      packbuf_value value;
      packbuf_find(&object.views[3], 0, "btext", &node, &error);
      good =
          is(packbuf_read_cell(&object.views[3], node.index, packbuf_selected_row(&whole, i), &arena, &value, &error),
             PACKBUF_OK);
      good = good && value.as.text.size > 100;
    }
    if (info.capabilities & PACKBUF_CAN_IN_PLACE) moved &= object.moved == 0;
    else if (info.capabilities & PACKBUF_CAN_RANGES) moved &= object.moved == heads + ranges;
    packbuf_object_release(&object);
    packbuf_arena_free(&arena);
    if (!good) tap_note("case %d", (int)k);
  }
  tap_ok(good, "%s: C90: rows of a manifest across borders, up and down", where);
  tap_ok(moved, "%s: C90: the manifest, heads and ranges are moved, and no byte more", where);
  lists_of_manifest(&c, &wanted);
  fields_of_manifest(&c, &wanted);
  removes(&c.refs[3]);
  audit("C90", 0);
  end_chain(&c);
}

/* ---- C91 ---- */

static void hostile(void) {
  FILE *index = fopen("spec/vectors/invalid/index.tsv", "r");
  char line[2000];
  int good = 1, count = 0;
  if (!index) {
    tap_skip("the invalid vectors are not here");
    return;
  }
  getting.level = PACKBUF_LEVEL_FULL;
  while (fgets(line, sizeof line, index)) {
    static uint8_t bytes[1 << 20];
    char *name = line, *level = strchr(name, '\t'), *rule, *status, path[2100];
    packbuf_ref ref = packbuf_ref_newest("hostile");
    packbuf_object object;
    packbuf_wanted wanted;
    packbuf_item item;
    packbuf_status got;
    size_t size;
    FILE *file;
    if (!level) continue;
    *level++ = 0;
    rule = strchr(level, '\t');
    *rule++ = 0;
    status = strchr(rule, '\t');
    *status++ = 0;
    *strchr(status, '\t') = 0;
    snprintf(path, sizeof path, "spec/vectors/invalid/%.1999s", name);
    file = fopen(path, "rb");
    if (!file) continue;
    size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    memset(&item, 0, sizeof item);
    item.key = "hostile";
    item.from = bytes;
    item.size = size;
    if (packbuf_batch_put(store, &item, 1, putting.deadline, &error)) good = 0;
    got = packbuf_get(store, &ref, &getting, &object, &error);
    packbuf_object_release(&object);
    if (strcmp(packbuf_status_name(got), status) != 0 && good) {
      good = 0;
      tap_note("%s: %s, not %s", name, packbuf_status_name(got), status);
    }
    memset(&wanted, 0, sizeof wanted);
    wanted.rows = packbuf_rows_all();
    wanted.values = 1;
    if (!packbuf_get_select(store, &ref, &wanted, &getting, &object, &error)) good = 0;
    packbuf_object_release(&object);
    { /* the same with what a packed buffer's putter may say of it */
      packbuf_ref about;
      uint64_t head = 0, total = 0;
      memset(&about, 0, sizeof about);
      about.kind = (uint8_t)(1 + count % 2);
      about.head_length = packbuf_peek(bytes, size, &head, &total, NULL) || head > size ? size : head;
      item.about = &about;
      if (packbuf_batch_put(store, &item, 1, putting.deadline, &error)) good = 0;
      (void)packbuf_get_select(store, &ref, &wanted, &getting, &object, &error);
      packbuf_object_release(&object);
    }
    count++;
  }
  fclose(index);
  getting.level = 0;
  tap_ok(good && count > 100, "%s: C91: %d invalid packed buffers: the error is the vector's", where, count);
  audit("C91", 1);
  clear();
}

/* A manifest that lists what it should not. */
static void hostile_manifests(void) {
  static char longest[400];
  const char *keys[7];
  packbuf_status want[7];
  int good = 1;
  mv_trip trip;
  packbuf_ref ref;
  make(&trip, 5, 2, 0);
  memset(longest, 'x', sizeof longest - 1);
  keys[0] = "nobody@00000000000003e8", want[0] = PACKBUF_NOT_FOUND;
  keys[1] = "", want[1] = PACKBUF_BAD_MANIFEST;
  keys[2] = longest, want[2] = PACKBUF_BAD_MANIFEST;
  keys[3] = "h h", want[3] = PACKBUF_INVALID_ARGUMENT;
  keys[4] = "part@0000000000000001", want[4] = PACKBUF_STALE;
  keys[5] = "part", want[5] = PACKBUF_OK; /* the newest */
  keys[6] = "part\0x", want[6] = PACKBUF_BAD_MANIFEST;
  is(packbuf_put(store, "part", &trip.batch, &putting, &ref, &error), PACKBUF_OK);
  for (int i = 0; i < 7; i++) {
    packbuf_arena arena;
    packbuf_fragment fragment;
    packbuf_batch batch;
    packbuf_object object;
    packbuf_arena_init(&arena, NULL);
    packbuf_fragment_of(&trip.view, keys[i], PACKBUF_APPENDS_ROWS, 0, &fragment, &error);
    if (i == 6) fragment.key.size += 2;
    good &= is(packbuf_manifest_init(&batch, NULL, &fragment, 1, &arena, NULL, &error), PACKBUF_OK) &&
            is(packbuf_put(store, "list", &batch, &putting, &ref, &error), PACKBUF_OK);
    good &= ref.kind == PACKBUF_OBJECT_MANIFEST && is(packbuf_get(store, &ref, &getting, &object, &error), want[i]) &&
            (want[i] == PACKBUF_OK || error.fragment == 0);
    packbuf_object_release(&object);
    if (want[i] == PACKBUF_BAD_MANIFEST)
      good &= is(packbuf_remove(store, &ref, PACKBUF_NO_WAIT, &error), want[i]) && error.fragment == 0;
    if (want[i] == PACKBUF_OK) { /* a removal leaves what is another batch's */
      const packbuf_ref part = packbuf_ref_newest("part");
      good &= is(packbuf_remove(store, &ref, PACKBUF_NO_WAIT, &error), PACKBUF_OK) &&
              is(packbuf_get(store, &part, &getting, &object, &error), PACKBUF_OK);
      packbuf_object_release(&object);
    }
    packbuf_arena_free(&arena);
  }
  tap_ok(good, "%s: manifests that list what is not there, or no keys", where);
  mv_trip_end(&trip);
  mv_free();
  audit("hostile manifests", 2);
  clear();
}

/* A manifest that lists nothing: who gets it would look at the first of no views. */
static void empty_manifest(void) {
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_object object;
  packbuf_wanted wanted;
  packbuf_ref ref;
  int good;
  memset(&wanted, 0, sizeof wanted);
  packbuf_arena_init(&arena, NULL);
  good = is(packbuf_manifest_init(&batch, NULL, NULL, 0, &arena, NULL, &error), PACKBUF_OK) &&
         is(packbuf_put(store, "none", &batch, &putting, &ref, &error), PACKBUF_OK) &&
         is(packbuf_get(store, &ref, &getting, &object, &error), PACKBUF_BAD_MANIFEST) && object.view_count == 0;
  packbuf_object_release(&object);
  good &= is(packbuf_get_select(store, &ref, &wanted, &getting, &object, &error), PACKBUF_BAD_MANIFEST);
  packbuf_object_release(&object);
  good &= is(packbuf_remove(store, &ref, PACKBUF_NO_WAIT, &error), PACKBUF_OK);
  tap_ok(good, "%s: a manifest that lists nothing is no batch, and can be removed", where);
  packbuf_arena_free(&arena);
  audit("an empty manifest", 0);
  clear();
}

/* ---- C66: the i-th allocation fails ---- */

static failing fails;

static void no_memory(void) {
  static const char *const names[] = {"put", "put_many", "get", "get_select", "append", "remove"};
  static const char *const patterns[] = {"a*"};
  const packbuf_allocator allocator = failing_allocator(&fails);
  packbuf_store_options options = packbuf_default_store_options();
  packbuf_store *before = store;
  fails = failing_at(~0ul, 0);
  options.allocator = &allocator;
  options.size = options.pool_size = (uint64_t)8 << 20;
  if (where[0] == 'l'
          ? packbuf_store_open("local:", &options, &store, &error)
          : packbuf_store_open_driver(where[5] ? &copying_pooled : &copying_driver, where, &options, &store, &error)) {
    store = before;
    tap_ok(0, "%s: a store of failing memory", where);
    return;
  }
  for (int what = 0; what < 6; what++) {
    chain c;
    unsigned long i = 0;
    uint64_t appended = 0;
    int ended = 0, good = make_chain(&c, "chain");
    for (; good && !ended && i < 2000; i++) {
      const char *keys[3] = {"x", "y", "z"};
      packbuf_batch *batches[3];
      packbuf_object objects[2];
      packbuf_wanted wanted;
      packbuf_ref ref;
      packbuf_status status;
      memset(objects, 0, sizeof objects);
      memset(&wanted, 0, sizeof wanted);
      wanted.patterns = patterns;
      wanted.pattern_count = 1;
      wanted.rows = packbuf_rows_range(90, 170, 1);
      for (int k = 0; k < 3; k++) batches[k] = &c.parts[k].batch;
      fails = failing_at(i / 2, (int)(i & 1)); /* it alone, or all from it on */
      switch (what) {
        case 0: status = packbuf_put(store, "x", batches[0], &putting, &ref, &error); break;
        case 1: status = packbuf_put_many(store, keys, batches, 3, &putting, NULL, NULL, &error); break;
        case 2: status = packbuf_get_many(store, &c.refs[2], 2, NULL, &getting, objects, &error); break;
        case 3: status = packbuf_get_many(store, &c.refs[2], 2, &wanted, &getting, objects, &error); break;
        case 4:
          status = packbuf_append(store, &c.refs[2], &c.parts[3].batch, PACKBUF_APPENDS_FIELDS, &putting, &ref, &error);
          break;
        default: status = packbuf_remove(store, &c.refs[3], PACKBUF_NO_WAIT, &error);
      }
      ended = status == PACKBUF_OK && fails.calls <= i / 2;
      fails = failing_at(~0ul, 0);
      for (int k = 0; k < 2; k++) packbuf_object_release(&objects[k]);
      good = status == PACKBUF_OK || is(status, PACKBUF_OUT_OF_MEMORY);
      if (what == 5) {
        good = good && removes(&c.refs[3]) && lists("chain", 0);
        end_chain(&c);
        good = make_chain(&c, "chain") && good;
      }
      if (what == 4) appended += status == PACKBUF_OK, good = good && lists("chain#f", 3 + appended); /* no orphans */
    }
    tap_ok(good && ended, "%s: C66: %s: each of %d allocations fails", where, names[what], (int)(i - 1) / 2);
    clear();
    audit(names[what], 0);
    end_chain(&c);
  }
  tap_ok(is(packbuf_store_close(store, PACKBUF_FOREVER, &error), PACKBUF_OK), "%s: nothing was left out", where);
  store = before;
}

/* ---- waiting, leases ---- */

static void leased(void) {
  chain c;
  packbuf_object object;
  int good = make_chain(&c, "leased");
  good = good && is(packbuf_get(store, &c.refs[2], &getting, &object, &error), PACKBUF_OK);
  tap_ok(good &&
             (info.capabilities & PACKBUF_CAN_IN_PLACE
                  ? is(packbuf_remove(store, &c.refs[3], PACKBUF_NO_WAIT, &error), PACKBUF_LEASED)
                  : removes(&c.refs[3])) &&
             lists("leased", 0) && join_reads(object.join, "anumber", 220),
         "%s: a removal while a whole is being read", where);
  packbuf_object_release(&object);
  audit("a removal under leases", 0);
  end_chain(&c);
}

static void all_of(const char *name) {
  where = name;
  if (!is(packbuf_store_describe(store, &info, PACKBUF_FOREVER, &error), PACKBUF_OK)) return;
  what_calls_cost();
  round_trips();
  bad_keys();
  many();
  writers_that_fail();
  larger_than_memory();
  refs_as_text();
  other_process();
  select_some();
  select_a_part();
  select_many();
  corrupted();
  appends();
  refused_appends();
  drifted_appends();
  no_packed_buffer();
  broken_off();
  orphan();
  select_of_manifest();
  hostile();
  hostile_manifests();
  empty_manifest();
  leased();
}

static void finish(void) {
  tap_ok(is(packbuf_store_close(store, PACKBUF_FOREVER, &error), PACKBUF_OK), "%s: closed", where);
}

int main(int argc, char **argv) {
  packbuf_store_options options = packbuf_default_store_options();
  putting.deadline = getting.deadline = PACKBUF_FOREVER;
  options.size = options.pool_size = (uint64_t)64 << 20;
  options.objects = 4096;
  if (argc > 1) {
    if (!tap_ok(is(packbuf_store_open(argv[1], &options, &store, &error), PACKBUF_OK), "%s", argv[1]))
      return tap_plan_done();
    all_of(argv[1]);
    finish();
    return tap_plan_done();
  }
  if (is(packbuf_store_open("local:", &options, &store, &error), PACKBUF_OK)) {
    all_of("local");
    no_memory();
    finish();
  }
  for (int i = 0; i < 2; i++) {
    const char *const uri = i ? "copy:whole" : "copy:";
    if (!is(packbuf_store_open_driver(i ? &copying_pooled : &copying_driver, uri, &options, &store, &error),
            PACKBUF_OK))
      continue;
    all_of(uri);
    no_memory();
    finish();
  }
  return tap_plan_done();
}
