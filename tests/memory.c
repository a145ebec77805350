/* Memory that ends, and memory that cannot be read: each allocation fails once, fixed arenas of every size, limits;
 * arrays of a device, whose hook fails. */
#include "../packbuf.h"
#include "everything.h"

/* ---- memory that ends ---- */

/* An allocator that keeps books: sizes given back must be those taken, and the failing call fails. */
typedef struct books {
  uint64_t calls, fail_at, live, blocks;
  int wrong;
} books;

static void *keep_books(void *context, void *memory, size_t old_size, size_t new_size) {
  books *b = (books *)context;
  size_t *block = memory ? (size_t *)memory - 2 : NULL, *fresh;
  if (block && block[0] != old_size) b->wrong = 1;
  if (!block && old_size) b->wrong = 1;
  if (new_size) {
    if (b->calls++ == b->fail_at) return NULL;
    fresh = (size_t *)malloc(new_size + 2 * sizeof *fresh);
    if (!fresh) abort();
    fresh[0] = new_size;
    memset(fresh + 2, 0xdd, new_size);
    if (block) memcpy(fresh + 2, memory, old_size < new_size ? old_size : new_size);
    b->live += new_size;
    b->blocks++;
  } else {
    fresh = NULL;
  }
  if (block) {
    b->live -= block[0];
    b->blocks--;
    memset(block, 0xee, block[0]);
    free(block);
  }
  return fresh ? fresh + 2 : NULL;
}

static void test_failures(void) {
  everything *e = make_everything();
  packbuf_allocator allocator;
  books b;
  packbuf_error error;
  packbuf_arena arena, back;
  packbuf_batch batch;
  packbuf_view view;
  packbuf_value *rows = (packbuf_value *)mv_alloc(ROWS * sizeof *rows);
  void *data;
  uint64_t size, i, fixed;
  int good = 1, done = 0;
  allocator.resize = keep_books;
  allocator.context = &b;
  for (i = 0; !done && good && i < 10000; i++) { /* every call down to the last row read: the i-th allocation fails */
    packbuf_status s;
    memset(&b, 0, sizeof b);
    b.fail_at = i;
    packbuf_arena_init(&arena, &allocator);
    packbuf_arena_init(&back, &allocator);
    s = packbuf_batch_init(&batch, ROWS, &arena, NULL, &error);
    if (!s) s = add_everything(&batch, e, &error);
    if (!s) s = packbuf_pack(&batch, &data, &size, &error);
    if (!s) s = packbuf_open(&view, data, size, PACKBUF_OPEN_EXACT, NULL, &error);
    if (!s) s = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
    if (!s) s = packbuf_read_rows(&view, 0, ROWS, &back, rows, &error);
    done = s == PACKBUF_OK && b.calls <= b.fail_at;
    good = s == PACKBUF_OK || (s == PACKBUF_OUT_OF_MEMORY && error.code == s); /* copies that only save time: without */
    packbuf_arena_free(&arena);
    packbuf_arena_free(&back);
    good = good && b.live == 0 && b.blocks == 0 && !b.wrong;
    if (!good)
      tap_note("allocation %u: %s, %s, live %u in %u blocks, wrong %d", (unsigned)i, packbuf_status_name(s),
               mv_error(&error), (unsigned)b.live, (unsigned)b.blocks, b.wrong);
  }
  tap_ok(good && done,
         "the first %u allocations fail one by one: OUT_OF_MEMORY or done without, nothing leaks, sizes are given back "
         "as they were taken",
         (unsigned)(i - 1));

  /* a fixed arena: every size fails with OUT_OF_MEMORY, until it is enough; allocation failures then can be anywhere,
   * not only between blocks */
  {
    uint64_t room = (uint64_t)4 << 20;
    uint8_t *memory = (uint8_t *)malloc((size_t)room);
    packbuf_arena_init_fixed(&arena, memory, (size_t)room);
    good = !packbuf_batch_init(&batch, ROWS, &arena, NULL, &error) && !add_everything(&batch, e, &error) &&
           !packbuf_pack(&batch, &data, &size, &error);
    fixed = arena.used;
    tap_ok(good && (uint8_t *)data >= memory && (uint8_t *)data + size <= memory + room && (uintptr_t)data % 64 == 0 &&
               !packbuf_open(&view, data, size, PACKBUF_OPEN_EXACT, NULL, &error) &&
               !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error),
           "packbuf_pack in a fixed arena, without an allocator: %u bytes of it for %u packed", (unsigned)fixed,
           (unsigned)size);
    packbuf_arena_free(&arena);
    for (room = 0; room < fixed + 4096 && good; room += 61) {
      packbuf_status s;
      uint8_t *exact = (uint8_t *)malloc((size_t)room + 1);
      packbuf_arena_init_fixed(&arena, exact, (size_t)room);
      s = packbuf_batch_init(&batch, ROWS, &arena, NULL, &error);
      if (!s) s = add_everything(&batch, e, &error);
      if (!s) s = packbuf_pack(&batch, &data, &size, &error);
      good = s == PACKBUF_OUT_OF_MEMORY || (s == PACKBUF_OK && room + 64 >= fixed);
      if (!good) tap_note("%u bytes: %s", (unsigned)room, packbuf_status_name(s));
      packbuf_arena_free(&arena);
      free(exact);
    }
    tap_ok(good, "fixed arenas of every size below: OUT_OF_MEMORY");
    free(memory);
  }
  mv_free();
}

/* What the limit refuses is not kept. */
static void test_limit(void) {
  packbuf_allocator allocator;
  packbuf_arena arena;
  books b;
  memset(&b, 0, sizeof b);
  b.fail_at = UINT64_MAX;
  allocator.resize = keep_books;
  allocator.context = &b;
  packbuf_arena_init(&arena, &allocator);
  arena.limit = 100000;
  packbuf_arena_alloc(&arena, 1, 1);
  {
    uint64_t before = b.live;
    unsigned char *next = arena.next;
    for (unsigned i = 0; i < 8; i++) packbuf_arena_alloc(&arena, 99999, 4096);
    tap_ok(b.live == before && arena.next == next && arena.used == 1,
           "a block that is refused for its padding is given back");
  }
  packbuf_arena_free(&arena);
  tap_ok(b.live == 0, "nothing stays");
}

/* ---- memory of a device ---- */

static void test_device(void) {
  enum { N = 50 };
  float dense[N * 4];
  int32_t offsets[N + 1], lengths[N];
  uint64_t shape[2] = {N, 4}, two[1] = {2}, row_shape[2] = {2, 2};
  int64_t strides[2] = {4, 4 * N};
  uint8_t validity[7] = {0xff, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff};
  packbuf_device device;
  packbuf_tensor plain, strided, small, rows[N], cells_of[N];
  packbuf_value cells[N];
  packbuf_ragged r;
  packbuf_error error;
  fake f;
  mv_trip trip, host;
  int good = 1;
  unsigned i, copies;
  memset(&device, 0, sizeof device);
  device.type = 2;
  device.copy = fake_copy;
  device.context = &f;
  for (i = 0; i < N * 4; i++) dense[i] = (float)(i * i % 97);
  for (i = 0; i <= N; i++) offsets[i] = (int32_t)(i * 4 - (i % 3));
  for (i = 0; i < N; i++) lengths[i] = (int32_t)(i % 3);
  f.fail_at = UINT32_MAX;
  for (unsigned on_device = 0; on_device < 2; on_device++) {
    mv_trip *t = on_device ? &trip : &host;
    const void *data = on_device ? (const void *)((uintptr_t)dense + FAR_AWAY) : (const void *)dense;
    const packbuf_device *d = on_device ? &device : NULL;
    f.copies = 0;
    f.bytes = 0;
    mv_trip_begin(t, N, NULL);
    plain = array_of(data, f32(), 2, shape, NULL, PACKBUF_FORM_TENSOR);
    strided = array_of(data, f32(), 2, shape, strides, PACKBUF_FORM_TENSOR);
    small = array_of(data, f32(), 1, two, NULL, PACKBUF_FORM_TENSOR);
    plain.device = strided.device = small.device = d;
    memset(&r, 0, sizeof r);
    r.data = data;
    r.dtype = f32();
    r.offset_bits = 32;
    r.offsets = offsets;
    r.items = N * 4;
    r.device = d;
    memset(rows, 0, sizeof rows);
    for (i = 0; i < N; i++) {
      if (i % 7 != 3) {
        rows[i] = array_of((const void *)((uintptr_t)data + 4 * i), f32(), 1 + i % 2, row_shape, i % 2 ? strides : NULL,
                           PACKBUF_FORM_TENSOR);
        rows[i].device = d;
      }
      cells_of[i] = array_of((const void *)((uintptr_t)data + 4 * i), f32(), 0, NULL, NULL, PACKBUF_FORM_SCALAR);
      cells_of[i].device = d;
      cells[i] = packbuf_tensor_value(&cells_of[i]);
    }
    good = good && !packbuf_add_tensor(&t->batch, "plain", &plain, NULL, &t->error) &&
           !packbuf_add_tensor(&t->batch, "strided", &strided, NULL, &t->error) &&
           !packbuf_add_tensor(&t->batch, "masked", &plain, validity, &t->error) &&
           !packbuf_add_ragged(&t->batch, "ragged", &r, &t->error);
    r.lengths = lengths;
    r.validity = validity;
    r.item_stride = 4;
    good = good && !packbuf_add_ragged(&t->batch, "holes", &r, &t->error) &&
           !packbuf_add_tensors(&t->batch, "rows", rows, &t->error) &&
           !packbuf_add_values(&t->batch, "scalars", cells, &t->error);
    {
      packbuf_value value = packbuf_tensor_value(&small);
      good = good && !packbuf_add_batch_value(&t->batch, "inline", &value, &t->error);
    }
    good = packs(t) && good;
  }
  tap_ok(good && f.copies > 5, "arrays of a device, which only its hook can read: %u copies of %u bytes", f.copies,
         (unsigned)f.bytes);
  copies = f.copies;
  for (i = 0; i < N && good; i++) {
    packbuf_value a, b;
    good = !packbuf_read_row(&trip.view, i, &trip.back, &a, &trip.error) &&
           !packbuf_read_row(&host.view, i, &host.back, &b, &host.error) && mv_same(&a, &b);
  }
  {
    packbuf_value a, b;
    good = good && !packbuf_read_batch_values(&trip.view, &trip.back, &a, &trip.error) &&
           !packbuf_read_batch_values(&host.view, &host.back, &b, &host.error) && mv_same(&a, &b);
  }
  tap_ok(good, "they read as the same arrays in host memory do");
  tap_ok(storage(&trip, "plain", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
             storage(&trip, "masked", PACKBUF_ROLE_DATA) == PACKBUF_STORED,
         "their content is not looked at: no alias");
  mv_trip_end(&host);
  for (i = 0; i < copies && good; i++) { /* the hook fails: its status comes back, wherever it happens */
    uint8_t *space = (uint8_t *)malloc((size_t)trip.size);
    packbuf_batch batch;
    packbuf_arena arena;
    packbuf_value value = packbuf_tensor_value(&small);
    packbuf_status s;
    f.copies = 0;
    f.fail_at = i;
    packbuf_arena_init(&arena, NULL);
    packbuf_batch_init(&batch, N, &arena, NULL, &error);
    packbuf_add_tensor(&batch, "plain", &plain, NULL, NULL);
    packbuf_add_tensor(&batch, "strided", &strided, NULL, NULL);
    packbuf_add_tensor(&batch, "masked", &plain, validity, NULL);
    r.lengths = r.validity = NULL;
    r.item_stride = 0;
    packbuf_add_ragged(&batch, "ragged", &r, NULL);
    r.lengths = lengths;
    r.validity = validity;
    r.item_stride = 4;
    packbuf_add_ragged(&batch, "holes", &r, NULL);
    packbuf_add_tensors(&batch, "rows", rows, NULL);
    packbuf_add_values(&batch, "scalars", cells, NULL);
    packbuf_add_batch_value(&batch, "inline", &value, NULL);
    s = packbuf_write(&batch, space, trip.size, NULL, &error);
    good = s == PACKBUF_READ_ONLY && error.code == s && error.path[0];
    if (!good) tap_note("copy %u: %s", i, packbuf_status_name(s));
    packbuf_arena_free(&arena);
    free(space);
  }
  tap_ok(good, "the hook's own status comes back when it fails, at any of its %u calls, with the field", copies);
  mv_trip_end(&trip);
  device.copy = NULL;
  mv_trip_begin(&trip, N, NULL);
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &plain, NULL, &error) == PACKBUF_UNSUPPORTED_DEVICE &&
             packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_UNSUPPORTED_DEVICE &&
             packbuf_add_tensors(&trip.batch, "x", rows, &error) == PACKBUF_UNSUPPORTED_DEVICE && error.row == 0,
         "a device without a hook: UNSUPPORTED_DEVICE");
  packbuf_add_values(&trip.batch, "x", cells, NULL);
  tap_ok(packbuf_measure(&trip.batch, &trip.size, &error) == PACKBUF_UNSUPPORTED_DEVICE && error.row == 0,
         "also of a value: UNSUPPORTED_DEVICE, row 0");
  mv_trip_end(&trip);
  mv_free();
}

int main(void) {
  test_failures();
  test_limit();
  test_device();
  mv_free();
  return tap_plan_done();
}
