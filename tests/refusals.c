/* What no caller should hand over (pointers to nothing, bools that are none, keys twice), and what is far larger than
 * it looks: refused with the field and the row, never followed. */
#include "../packbuf.h"
#include "trips.h"

/* ---- bools that are none ---- */

static packbuf_status pack_bools(mv_trip *trip, const uint8_t *bools, uint64_t rows, uint64_t each,
                                 const packbuf_device *device) {
  uint64_t shape[2];
  packbuf_tensor t;
  packbuf_status status;
  shape[0] = rows;
  shape[1] = each;
  t = array_of((const void *)((uintptr_t)bools + (device ? FAR_AWAY : 0)), packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), 2,
               shape, NULL, PACKBUF_FORM_ARRAY);
  t.device = device;
  mv_trip_begin(trip, rows, NULL);
  status = packbuf_add_tensor(&trip->batch, "b", &t, NULL, &trip->error);
  return status ? status : mv_trip_pack(trip);
}

static void test_bools(void) {
  enum { N = 300000 };
  uint8_t *bools = (uint8_t *)mv_alloc(N);
  packbuf_device device;
  fake f;
  mv_trip trip;
  memset(&device, 0, sizeof device);
  memset(&f, 0, sizeof f);
  f.fail_at = UINT32_MAX;
  device.copy = fake_copy;
  device.context = &f;
  for (unsigned i = 0; i < N; i++) bools[i] = (uint8_t)(mv_random() >> 40 & 1);
  tap_ok(!pack_bools(&trip, bools, 1000, 300, NULL), "%d bools pack", N);
  mv_trip_end(&trip);
  for (unsigned on_device = 0; on_device < 2; on_device++) {
    bools[171234] = 2;
    tap_ok(pack_bools(&trip, bools, 1000, 300, on_device ? &device : NULL) == PACKBUF_BAD_BOOL &&
               trip.error.row == 570 && strcmp(trip.error.path, "b") == 0,
           "a bool byte of 2%s: BAD_BOOL, row 570 of b", on_device ? " on a device" : "");
    mv_trip_end(&trip);
    bools[171234] = 1;
    bools[13] = 255;
    tap_ok(pack_bools(&trip, bools, 8, 2, on_device ? &device : NULL) == PACKBUF_BAD_BOOL && trip.error.row == 6,
           "an inline bool byte of 255: BAD_BOOL, row 6");
    mv_trip_end(&trip);
    bools[13] = 0;
  }
  memset(bools, 7, N);
  tap_ok(pack_bools(&trip, bools, 1000, 300, NULL) == PACKBUF_BAD_BOOL && trip.error.row == 0,
         "a constant bool byte of 7: BAD_BOOL");
  mv_trip_end(&trip);
  {
    uint64_t shapes[3] = {3, 40, 9};
    packbuf_tensor rows[3];
    memset(bools, 0, 100);
    bools[45] = 9; /* row 2, element 5 */
    bools[1] = 1;
    for (unsigned i = 0; i < 3; i++)
      rows[i] = array_of(bools + (i == 2 ? 40 : 0), packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), 1, shapes + i, NULL, 0);
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_tensors(&trip.batch, "b", rows, &trip.error) && mv_trip_pack(&trip) == PACKBUF_BAD_BOOL &&
               trip.error.row == 2,
           "in one array a row: BAD_BOOL, row 2");
    mv_trip_end(&trip);
  }
  mv_free();
}

/* ---- what no caller should hand over, and what is far larger than it looks ---- */

/* Measures `rows` cells as field "f": the status; error->row and path say where. */
static packbuf_status refuses(const packbuf_value *cells, uint64_t rows, packbuf_error *error) {
  uint64_t size;
  packbuf_status status;
  mv_trip trip;
  mv_trip_begin(&trip, rows, NULL);
  status = packbuf_add_values(&trip.batch, "f", cells, error);
  if (!status) status = packbuf_measure(&trip.batch, &size, error);
  mv_trip_end(&trip);
  return status;
}

/* The value as the second cell, alone or inside a list, or as a dict's key: always INVALID_ARGUMENT at row 1 of f. */
static void refused(packbuf_value value, const char *what) {
  packbuf_value cells[2], items[2];
  packbuf_entry entry;
  packbuf_error error;
  int good;
  cells[0] = packbuf_null();
  cells[1] = value;
  good = refuses(cells, 2, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1 && strcmp(error.path, "f") == 0;
  items[0] = packbuf_int(1);
  items[1] = value;
  cells[1] = packbuf_list(items, 2);
  good &= refuses(cells, 2, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1 && strcmp(error.path, "f") == 0;
  entry.key = packbuf_int(1);
  entry.value = packbuf_list(items, 2);
  cells[1] = packbuf_dict(&entry, 1);
  good &= refuses(cells, 2, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1 && strcmp(error.path, "f") == 0;
  if (value.kind == PACKBUF_STRING || value.kind == PACKBUF_BYTES) {
    entry.key = value;
    entry.value = packbuf_int(1);
    good &= refuses(cells, 2, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1 && strcmp(error.path, "f") == 0;
  }
  tap_ok(good, "%s: INVALID_ARGUMENT, row 1 of f, as a cell and inside one", what);
}

static void test_nowhere(void) {
  static const packbuf_opaque no_data = {NULL, 3, "x", 1}, no_name = {"abc", 3, NULL, 3};
  packbuf_media media = packbuf_media_of(NULL, 9, NULL), odd[3];
  packbuf_value items[2], rows[2];
  packbuf_entry entry;
  packbuf_error error;
  packbuf_schema schema;
  packbuf_options options = packbuf_default_options();
  mv_trip trip;
  refused(packbuf_list(NULL, 2), "a list without items");
  refused(packbuf_dict(NULL, 2), "a dict without entries");
  refused(packbuf_string_n(NULL, 3), "a string without data");
  refused(packbuf_bytes(NULL, 3), "bytes without data");
  refused(packbuf_tensor_value(NULL), "a tensor that is NULL");
  refused(packbuf_media_value(NULL), "media that are NULL");
  refused(packbuf_media_value(&media), "media without data");
  refused(packbuf_opaque_value(NULL), "an opaque value that is NULL");
  refused(packbuf_opaque_value(&no_data), "an opaque value without data");
  refused(packbuf_opaque_value(&no_name), "a serializer's name without data");
  for (unsigned i = 0; i < 3; i++) {
    odd[i] = packbuf_media_of("x", 1, NULL);
    *(i == 0 ? &odd[i].height : i == 1 ? &odd[i].width : &odd[i].channels) = -2;
    refused(packbuf_media_value(&odd[i]), "media with a size of -2");
    items[0] = items[1] = packbuf_media_value(&odd[i]);
    rows[0] = packbuf_list(items, 2);
    tap_ok(refuses(rows, 1, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 0, "and in a list of media");
  }
  rows[0] = packbuf_dict(NULL, 0);
  rows[1] = packbuf_dict(NULL, 2);
  mv_trip_begin(&trip, 2, NULL);
  tap_ok(packbuf_add_rows(&trip.batch, rows, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1,
         "a row without its entries: INVALID_ARGUMENT, row 1");
  entry.key = packbuf_string_n(NULL, 2);
  entry.value = packbuf_int(1);
  rows[1] = packbuf_dict(&entry, 1);
  tap_ok(packbuf_add_rows(&trip.batch, rows, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1,
         "a row's key without data: INVALID_ARGUMENT, row 1");
  mv_trip_end(&trip);
  memset(&schema, 0, sizeof schema);
  schema.path = "f";
  schema.dtype = i64();
  options.schemas = &schema;
  options.schema_count = 1;
  rows[0] = packbuf_tensor_value(NULL);
  mv_trip_begin(&trip, 1, &options);
  tap_ok(!packbuf_add_values(&trip.batch, "f", rows, &trip.error) && mv_trip_pack(&trip) == PACKBUF_INVALID_ARGUMENT &&
             trip.error.row == 0,
         "a schema's dtype over a tensor that is NULL");
  mv_trip_end(&trip);
}

static void test_keys(void) {
  packbuf_value cells[3], list = packbuf_list(NULL, 0);
  packbuf_entry big[2], odd[2];
  packbuf_error error;
  mv_trip trip;
  big[0].key = packbuf_bigint("18446744073709551616");
  big[1].key = packbuf_bigint("-9223372036854775809");
  big[0].value = big[1].value = packbuf_int(1);
  cells[0] = packbuf_dict(big, 2);
  mv_trip_begin(&trip, 1, NULL);
  if (tap_ok(!packbuf_add_values(&trip.batch, "f", cells, &trip.error) && packs(&trip), "keys beyond 64 bits pack")) {
    packbuf_value got = cell(&trip, "f", 0);
    tap_ok(mv_same(&got, cells), "and come back");
  }
  mv_trip_end(&trip);
  big[1].key = big[0].key;
  tap_ok(refuses(cells, 1, &error) == PACKBUF_INVALID_ARGUMENT, "two equal keys beyond 64 bits: INVALID_ARGUMENT");
  odd[0].key = odd[1].key = list;
  odd[0].value = odd[1].value = packbuf_int(1);
  cells[0] = packbuf_null();
  cells[1] = packbuf_int(5);
  cells[2] = packbuf_dict(odd, 2);
  tap_ok(refuses(cells, 3, &error) == PACKBUF_UNENCODABLE && error.row == 2 && strcmp(error.path, "f") == 0,
         "keys that nothing holds: UNENCODABLE, row 2 of f");
}

static void test_vast(void) {
  static const uint8_t one = 1;
  static char text[4096] = "v";
  uint64_t vast[1] = {(uint64_t)1 << 62}, wide[2] = {(uint64_t)1 << 33, 3}, item[1] = {(uint64_t)1 << 40}, size = 0;
  int64_t still[2] = {0, 0}, offsets[2] = {0, 1 << 24};
  packbuf_tensor t = array_of(&one, u8(), 1, vast, still, PACKBUF_FORM_ARRAY);
  packbuf_value items[5], levels[22][2], row;
  packbuf_error error;
  packbuf_entry entry;
  packbuf_ragged r;
  mv_trip trip;
  for (unsigned i = 0; i < 4; i++) items[i] = packbuf_tensor_value(&t);
  items[4] = packbuf_string("x");
  row = packbuf_list(items, 5);
  tap_ok(refuses(&row, 1, &error) == PACKBUF_LIMIT && error.row == 0 && strcmp(error.path, "f") == 0,
         "four arrays of 2^62 bytes in a cell: LIMIT, not 0 bytes");
  row = packbuf_list(items + 3, 2);
  vast[0] = (uint64_t)1 << 30;
  tap_ok(refuses(&row, 1, &error) == PACKBUF_LIMIT, "an array of 2^30 bytes in a cell: LIMIT");
  levels[0][0] = packbuf_bytes(&one, (size_t)1 << 28); /* no more than its size is looked at */
  levels[0][1] = packbuf_int(1);
  for (unsigned i = 1; i < 22; i++) levels[i][0] = levels[i][1] = packbuf_list(levels[i - 1], 2);
  entry.key = packbuf_int(1);
  entry.value = levels[21][0];
  row = packbuf_dict(&entry, 1);
  tap_ok(refuses(&row, 1, &error) == PACKBUF_LIMIT && error.row == 0,
         "a list shared by lists, 2^20 times in all: LIMIT");
  memset(&r, 0, sizeof r);
  r.data = &one;
  r.dtype = u8();
  r.item_rank = 1;
  r.item_shape = item;
  r.offset_bits = 64;
  r.items = (uint64_t)1 << 47;
  r.offsets = offsets;
  mv_trip_begin(&trip, 1, NULL);
  tap_ok(packbuf_add_ragged(&trip.batch, "f", &r, &error) == PACKBUF_INVALID_ARGUMENT && strcmp(error.path, "f") == 0,
         "2^47 items of 2^40 bytes: INVALID_ARGUMENT");
  r.item_rank = 0;
  r.items = (uint64_t)1 << 62;
  tap_ok(packbuf_add_ragged(&trip.batch, "f", &r, &error) == PACKBUF_INVALID_ARGUMENT,
         "2^62 items of a byte: INVALID_ARGUMENT");
  r.items = ((uint64_t)1 << 62) - 1;
  tap_ok(packbuf_add_ragged(&trip.batch, "f", &r, &error) == PACKBUF_OK, "one less is taken");
  mv_trip_end(&trip);
  t = array_of(&one, u8(), 2, wide, still, 0);
  mv_trip_begin(&trip, wide[0], NULL);
  tap_ok(!packbuf_add_tensor(&trip.batch, "f", &t, NULL, &error) && packs(&trip) &&
             storage(&trip, "f", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT,
         "an array that repeats one byte 2^33 x 3 times is a constant");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 0, NULL);
  packbuf_add_metadata(&trip.batch, NULL, "k", text, NULL);
  tap_ok(!packbuf_measure(&trip.batch, &size, &error), "a text that grows after it was added");
  memset(text, 'x', sizeof text - 1);
  tap_ok(packs(&trip) && trip.size == size && metadata_is(&trip, 0, "", "k", "x"), "is cut at the size it had");
  mv_trip_end(&trip);
}

/* Broadcast dimensions: constant exactly when all that they repeat is. */
int main(void) {
  test_bools();
  test_nowhere();
  test_keys();
  test_vast();
  mv_free();
  return tap_plan_done();
}
