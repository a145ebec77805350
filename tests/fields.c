/* Each way of adding a field: dense, ragged, one array a row, text, rows, batch values, metadata; and none at all. What
 * is written is opened, verified and read back; the elements are compared with a walk over the source that this file
 * makes itself. */
#include "../packbuf.h"
#include "trips.h"

/* ---- dense arrays ---- */

enum { CONTIGUOUS, FORTRAN, PADDED, NEGATIVE, BROADCAST, UNALIGNED, MASKED, LAYOUTS };
static const char *const layout_names[LAYOUTS] = {"contiguous",        "Fortran order", "padded rows",
                                                  "negative strides",  "zero strides",  "unaligned data",
                                                  "padded, with nulls"};

/* A source of a layout: shape, strides and where element 0 is. */
static packbuf_tensor dense_source(unsigned layout, unsigned rank, const uint64_t *shape, int64_t *strides,
                                   packbuf_dtype dtype) {
  int64_t element = dtype.bits / 8, step = element;
  uint8_t *data;
  for (unsigned i = 0; i < rank; i++) {
    unsigned d = layout == FORTRAN ? i : rank - 1 - i;
    strides[d] = step;
    step *= (int64_t)shape[d];
    if (layout == PADDED || layout == MASKED) step += element * (int64_t)mv_below(2);
  }
  data = random_bytes((size_t)step + 1, dtype);
  if (layout == UNALIGNED) data++;
  for (unsigned d = 0; d < rank; d++) {
    if (layout == NEGATIVE && (d == 0 || mv_below(2))) {
      data += strides[d] * (int64_t)(shape[d] ? shape[d] - 1 : 0);
      strides[d] = -strides[d];
    }
    if (layout == BROADCAST && (d == rank - 1 || mv_below(2))) strides[d] = 0;
  }
  return array_of(data, dtype, rank, shape, layout == CONTIGUOUS || layout == UNALIGNED ? NULL : strides,
                  PACKBUF_FORM_NATURAL);
}

static const uint8_t *element_of(const packbuf_tensor *t, uint64_t row, uint64_t inside) {
  uint64_t per_row = 1;
  for (unsigned d = 1; d < t->rank; d++) per_row *= t->shape[d];
  return mv_element_at(t, row * per_row + inside);
}

/* The value that a cell of rank 1 (a plain number) must read as, from its bits; 0 when the reader may choose (no plain
 * number of that dtype exists). */
static int number_of(packbuf_dtype dtype, const uint8_t *at, packbuf_value *value) {
  int8_t s8;
  int16_t s16;
  int32_t s32;
  int64_t s64;
  uint16_t w16;
  uint32_t w32;
  uint64_t w64;
  float f;
  double g;
  if (dtype.code == PACKBUF_DTYPE_BOOL) return *value = packbuf_bool(*at), 1;
  if (dtype.code == PACKBUF_DTYPE_INT) {
    if (dtype.bits == 8) memcpy(&s8, at, 1), *value = packbuf_int(s8);
    else if (dtype.bits == 16) memcpy(&s16, at, 2), *value = packbuf_int(s16);
    else if (dtype.bits == 32) memcpy(&s32, at, 4), *value = packbuf_int(s32);
    else memcpy(&s64, at, 8), *value = packbuf_int(s64);
    return 1;
  }
  if (dtype.code == PACKBUF_DTYPE_UINT) {
    if (dtype.bits == 8) *value = packbuf_uint(*at);
    else if (dtype.bits == 16) memcpy(&w16, at, 2), *value = packbuf_uint(w16);
    else if (dtype.bits == 32) memcpy(&w32, at, 4), *value = packbuf_uint(w32);
    else memcpy(&w64, at, 8), *value = packbuf_uint(w64);
    return 1;
  }
  if (dtype.code != PACKBUF_DTYPE_FLOAT || dtype.bits == 16) return 0;
  if (dtype.bits == 64) memcpy(&g, at, 8);
  else memcpy(&f, at, 4), g = f;
  if (g != g) return 0; /* what a wider NaN looks like is the reader's matter; its bits are compared elsewhere */
  return *value = packbuf_float(g), 1;
}

static int compare_dense(mv_trip *trip, const packbuf_tensor *t, const uint8_t *validity) {
  packbuf_node node;
  packbuf_buffer data;
  uint64_t per_row = 1, rows = t->shape[0];
  size_t element = t->dtype.bits / 8;
  uint8_t *stored;
  if (!find(trip, "x", &node) || node.codec != PACKBUF_CODEC_NDARRAY || node.rank != t->rank - 1 || node.rows != rows)
    return 0;
  for (unsigned d = 1; d < t->rank; d++) {
    if (node.shape[d - 1] != t->shape[d]) return 0;
    per_row *= t->shape[d];
  }
  if (packbuf_get_buffer(&trip->view, &node, PACKBUF_ROLE_DATA, 0, &data, &trip->error) || data.count != rows * per_row)
    return 0;
  stored = (uint8_t *)mv_alloc((size_t)(rows * per_row) * element);
  if (packbuf_copy_elements(&trip->view, &data, 0, data.count, stored, rows * per_row * element, &trip->error))
    return 0;
  for (uint64_t row = 0; row < rows; row++) {
    packbuf_value want = packbuf_null(), got = cell(trip, "x", row);
    packbuf_tensor contiguous;
    int present = bit(validity, row), exact = 1;
    for (uint64_t i = 0; i < per_row; i++) {
      static const uint8_t zero[16];
      if (memcmp(stored + (row * per_row + i) * element, present ? element_of(t, row, i) : zero, element) != 0)
        return 0;
    }
    if (present && t->rank > 1) {
      contiguous = array_of(stored + row * per_row * element, t->dtype, t->rank - 1u, t->shape + 1, NULL, t->form);
      want = packbuf_tensor_value(&contiguous);
    } else if (present) {
      exact = number_of(t->dtype, element_of(t, row, 0), &want);
    }
    if (exact && (!mv_same(&want, &got) || !packbuf_equal(&want, &got))) return 0;
  }
  return 1;
}

static void test_dense(void) {
  for (unsigned rank = 1; rank <= PACKBUF_MAX_RANK; rank++)
    for (unsigned layout = 0; layout < LAYOUTS; layout++) {
      int good = 1;
      unsigned dtype;
      for (dtype = 0; dtype < MV_DTYPES && good; dtype++) {
        uint64_t shape[PACKBUF_MAX_RANK], rows = 1 + mv_below(20);
        int64_t strides[PACKBUF_MAX_RANK];
        uint8_t validity[4];
        packbuf_tensor source;
        mv_trip trip;
        for (unsigned d = 0; d < rank; d++) shape[d] = d ? 1 + mv_below(rank > 4 ? 2 : 5) : rows;
        for (unsigned i = 0; i < 4; i++) validity[i] = (uint8_t)mv_random();
        source = dense_source(layout, rank, shape, strides, mv_dtype_at(dtype));
        if (rank > 1) source.form = (uint8_t)(mv_below(2) ? PACKBUF_FORM_ARRAY : PACKBUF_FORM_NATURAL);
        mv_trip_begin(&trip, rows, NULL);
        good = !packbuf_add_tensor(&trip.batch, "x", &source, layout == MASKED ? validity : NULL, &trip.error) &&
               packs(&trip) && compare_dense(&trip, &source, layout == MASKED ? validity : NULL);
        mv_trip_end(&trip);
      }
      mv_free();
      tap_ok(good, "dense, %u dimension(s), %s, every dtype%s%s", rank, layout_names[layout],
             good ? "" : ": failed at ", good ? "" : mv_dtypes[dtype - 1].name);
    }
}

static void test_dense_edges(void) {
  static const double numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  uint64_t shape[9] = {4, 2, 1, 1, 1, 1, 1, 1, 1}, huge[3] = {4, (uint64_t)1 << 40, (uint64_t)1 << 40},
           empty[3] = {4, 0, 3};
  packbuf_tensor t = array_of(numbers, f64(), 2, shape, NULL, PACKBUF_FORM_ARRAY);
  packbuf_error error;
  mv_trip trip;
  mv_trip_begin(&trip, 4, NULL);
  t.rank = 0;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_ROW_COUNT,
         "a dense array of no dimensions has no rows: ROW_COUNT");
  t.rank = 1;
  shape[0] = 3;
  tap_ok(packbuf_add_tensor(&trip.batch, "bad.rows", &t, NULL, &error) == PACKBUF_ROW_COUNT &&
             strcmp(error.path, "bad.rows") == 0,
         "3 rows in a batch of 4: ROW_COUNT, with the name");
  shape[0] = 4;
  t.rank = 9;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "9 dimensions: INVALID_ARGUMENT");
  t.rank = 2;
  t.dtype.lanes = 2;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_UNSUPPORTED_DTYPE,
         "two lanes: UNSUPPORTED_DTYPE");
  t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 4);
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_UNSUPPORTED_DTYPE,
         "int4, which is reserved: UNSUPPORTED_DTYPE");
  t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 1);
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_UNSUPPORTED_DTYPE,
         "single bits are for bitmaps: UNSUPPORTED_DTYPE");
  t.dtype = f64();
  t.form = 7;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "a form that does not exist: INVALID_ARGUMENT");
  t.form = PACKBUF_FORM_SCALAR;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "scalars with dimensions: INVALID_ARGUMENT");
  t.form = PACKBUF_FORM_ARRAY;
  t.shape = NULL;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "no shape: INVALID_ARGUMENT");
  t.shape = huge;
  t.rank = 3;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "a shape whose product overflows: INVALID_ARGUMENT");
  t.shape = shape;
  t.rank = 2;
  t.data = NULL;
  tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
         "no data: INVALID_ARGUMENT");
  tap_ok(packbuf_add_tensor(NULL, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_add_tensor(&trip.batch, NULL, &t, NULL, NULL) == PACKBUF_INVALID_ARGUMENT,
         "no batch, no name: INVALID_ARGUMENT");
  t.data = numbers;
  tap_ok(packbuf_add_tensor(&trip.batch, "\xff", &t, NULL, &error) == PACKBUF_BAD_UTF8,
         "a name that is not UTF-8: BAD_UTF8");
  t.shape = empty;
  t.rank = 3;
  t.data = NULL;
  tap_ok(packbuf_add_tensor(&trip.batch, "empty", &t, NULL, &error) == PACKBUF_OK,
         "an array of no elements needs no data");
  t = array_of(numbers, f64(), 1, shape, NULL, PACKBUF_FORM_SCALAR);
  tap_ok(packbuf_add_tensor(&trip.batch, "scalar", &t, NULL, &error) == PACKBUF_OK && packs(&trip),
         "none of the refused left a trace: the batch packs");
  tap_ok(trip.view.field_count == 2 && is(&trip, "scalar", 2, "s.f64(3)") && is(&trip, "empty", 3, "a.f64[0 3]()"),
         "a column of scalars; cells of shape [0, 3]");
  mv_trip_end(&trip);
  mv_free();
}

/* ---- ragged rows ---- */

/* Random rows by offsets; the expected cells are gathered from the description alone. */
static int ragged_case(unsigned variant, packbuf_dtype dtype) {
  uint64_t rows = 1 + mv_below(30), items = 0, item_shape[2], per_item = 1;
  int64_t offsets[32], lengths[32], stride = 0;
  int32_t narrow[2][32];
  uint8_t validity[4], missing[4];
  size_t element = dtype.bits / 8, item;
  packbuf_ragged r;
  mv_trip trip;
  int good;
  memset(&r, 0, sizeof r);
  for (unsigned i = 0; i < 4; i++) validity[i] = (uint8_t)mv_random(), missing[i] = (uint8_t)mv_random();
  r.item_rank = (uint8_t)(variant % 3);
  item_shape[0] = 1 + mv_below(3);
  item_shape[1] = 1 + mv_below(2);
  for (unsigned d = 0; d < r.item_rank; d++) per_item *= item_shape[d];
  item = (size_t)per_item * element;
  items = variant & 1 ? 3 + mv_below(4) : 0; /* offsets need not start at 0 */
  for (uint64_t i = 0; i < rows; i++) {
    offsets[i] = (int64_t)items;
    lengths[i] = variant % 5 == 4 ? 7 : (int64_t)mv_below(9);
    items += (uint64_t)lengths[i] + ((variant & 2) && mv_below(2) ? 1 + mv_below(2) : 0); /* holes only with lengths */
  }
  offsets[rows] = (int64_t)items;
  items += mv_below(3);
  for (uint64_t i = 0; i <= rows; i++) {
    narrow[0][i] = (int32_t)offsets[i];
    if (i < rows) narrow[1][i] = (int32_t)lengths[i];
  }
  if (variant & 4) stride = (int64_t)item + (int64_t)element * (1 + mv_below(2));
  if (variant & 8 && variant & 4) stride = -stride;
  r.dtype = dtype;
  r.form = (uint8_t)(variant & 16 ? PACKBUF_FORM_ARRAY : variant & 32 ? PACKBUF_FORM_TENSOR : PACKBUF_FORM_NATURAL);
  r.offset_bits = variant & 64 ? 32 : 64;
  r.item_shape = item_shape;
  r.item_stride = stride;
  r.items = items;
  r.offsets = variant & 64 ? (const void *)narrow[0] : (const void *)offsets;
  r.lengths = !(variant & 2) ? NULL : variant & 64 ? (const void *)narrow[1] : (const void *)lengths;
  r.validity = variant & 128 ? validity : NULL;
  r.missing = variant & 1 ? missing : NULL;
  {
    size_t step = stride ? (size_t)(stride < 0 ? -stride : stride) : item;
    uint8_t *data = random_bytes(step * (size_t)items + 1, dtype) + (variant >> 2 & 1);
    r.data = stride < 0 ? data + step * (size_t)(items ? items - 1 : 0) : data;
    if (!stride) stride = (int64_t)item;
  }
  mv_trip_begin(&trip, rows, NULL);
  good = !packbuf_add_ragged(&trip.batch, "x", &r, &trip.error) && packs(&trip);
  for (uint64_t row = 0; row < rows && good; row++) {
    packbuf_value want = packbuf_null(), got = cell(&trip, "x", row);
    uint64_t shape[3] = {0, 0, 0},
             count = variant & 2 ? (uint64_t)lengths[row] : (uint64_t)(offsets[row + 1] - offsets[row]);
    uint8_t *gathered = (uint8_t *)mv_alloc((size_t)count * item);
    packbuf_tensor t;
    shape[0] = count;
    for (unsigned d = 0; d < r.item_rank; d++) shape[d + 1] = item_shape[d];
    for (uint64_t i = 0; i < count; i++)
      memcpy(gathered + i * item, (const uint8_t *)r.data + stride * (offsets[row] + (int64_t)i), item);
    t = array_of(gathered, dtype, r.item_rank + 1u, shape, NULL, r.form);
    if (bit(r.validity, row)) want = packbuf_tensor_value(&t);
    else if (r.missing && bit(r.missing, row)) want = packbuf_missing();
    good = mv_same(&want, &got);
  }
  if (!good) tap_note("variant %u, %s", variant, mv_error(&trip.error));
  mv_trip_end(&trip);
  mv_free();
  return good;
}

static void test_ragged(void) {
  for (unsigned dtype = 0; dtype < MV_DTYPES; dtype++) {
    int good = 1;
    for (unsigned variant = 0; variant < 256 && good; variant++) good = ragged_case(variant, mv_dtype_at(dtype));
    tap_ok(good,
           "ragged %s: 256 ways (32 and 64 bits, not from 0, lengths with holes, items of rank 0 to 2, strides, absent)",
           mv_dtypes[dtype].name);
  }
}

static void test_ragged_edges(void) {
  static const int32_t numbers[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  int64_t descending[4] = {0, 5, 3, 9}, passing[4] = {0, 2, 4, 11}, holes[4] = {0, 9, 4, 0}, below[4] = {-1, 2, 4, 6},
          fine[4] = {2, 2, 5, 10};
  int32_t holes32[4] = {8, 0, 4, 0}, lengths32[3] = {2, 3, -1};
  int64_t lengths[3] = {2, 3, 1};
  uint64_t shape[7] = {1, 1, 1, 1, 1, 1, 1}, none[1] = {0};
  uint8_t validity = 0x5; /* row 1 absent */
  packbuf_ragged r;
  packbuf_error error;
  uint64_t size;
  mv_trip trip;
  memset(&r, 0, sizeof r);
  r.data = numbers;
  r.dtype = i32();
  r.offset_bits = 64;
  r.items = 10;
  r.offsets = descending;
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) &&
             packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 1 &&
             strcmp(error.path, "x") == 0,
         "offsets that descend: OUT_OF_RANGE, row 1 of x");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  r.offsets = passing;
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) &&
             packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 2,
         "an offset past the items: OUT_OF_RANGE, row 2");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  r.offsets = below;
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) &&
             packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 0,
         "an offset below 0: OUT_OF_RANGE, row 0");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  r.offsets = holes32;
  r.lengths = lengths32;
  r.offset_bits = 32;
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) &&
             packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 2,
         "a length below 0: OUT_OF_RANGE, row 2");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  r.offset_bits = 64;
  r.offsets = holes;
  r.lengths = lengths;
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) &&
             packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 1,
         "offset and length past the items: OUT_OF_RANGE, row 1");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  r.validity = &validity;
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "t.i32[2](0 1)") &&
             is(&trip, "x", 1, "null") && is(&trip, "x", 2, "t.i32[1](4)"),
         "the extent of an absent row is not looked at");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  r.lengths = NULL;
  r.offsets = descending;
  r.validity = &validity;
  descending[0] = 0, descending[1] = 3, descending[2] = 1, descending[3] = 4; /* only the absent row descends */
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "t.i32[3](0 1 2)") &&
             is(&trip, "x", 1, "null") && is(&trip, "x", 2, "t.i32[3](1 2 3)"),
         "offsets may descend across an absent row");
  mv_trip_end(&trip);
  r.validity = NULL;
  r.lengths = NULL;
  r.offsets = fine;
  r.form = PACKBUF_FORM_LIST;
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "[]") &&
             is(&trip, "x", 1, "[2 3 4]") && is(&trip, "x", 2, "[5 6 7 8 9]"),
         "rows that are lists");
  mv_trip_end(&trip);
  r.form = PACKBUF_FORM_SCALAR;
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT,
         "ragged scalars: INVALID_ARGUMENT");
  r.form = PACKBUF_FORM_BYTES;
  tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT,
         "a form of items: INVALID_ARGUMENT");
  r.form = 0;
  r.offset_bits = 16;
  tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT,
         "offsets of 16 bits: INVALID_ARGUMENT");
  r.offset_bits = 64;
  r.offsets = NULL;
  tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT, "no offsets: INVALID_ARGUMENT");
  r.offsets = fine;
  r.item_rank = 8;
  tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT,
         "items of 8 dimensions: INVALID_ARGUMENT");
  r.item_rank = 7;
  r.item_shape = shape;
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) &&
             is(&trip, "x", 1, "t.i32[3 1 1 1 1 1 1 1](2 3 4)"),
         "items of 7 dimensions: rows of 8");
  mv_trip_end(&trip);
  r.item_rank = 1;
  r.item_shape = none;
  r.data = NULL;
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "t.i32[0 0]()") &&
             is(&trip, "x", 2, "t.i32[5 0]()"),
         "items of no elements keep their number");
  mv_trip_end(&trip);
  mv_free();
}

/* ---- one array a row ---- */

static void test_tensors(void) {
  static const int32_t numbers[6] = {0, 1, 2, 3, 4, 5};
  uint64_t two[1] = {2}, block[2] = {2, 3}, flat[2] = {0, 3}, thin[2] = {2, 0}, cube[3] = {1, 2, 3};
  int64_t back[1] = {-4}, columns[2] = {4, 8}, again[2] = {0, 4};
  packbuf_tensor t[8];
  packbuf_error error;
  mv_trip trip;
  memset(t, 0, sizeof t);
  t[0] = array_of(numbers, i32(), 1, two, NULL, PACKBUF_FORM_ARRAY);
  t[1] = array_of(numbers + 5, i32(), 1, two, back, PACKBUF_FORM_ARRAY);
  /* t[2]: null */
  t[3] = array_of(numbers, i32(), 2, block, columns, PACKBUF_FORM_ARRAY);
  t[4] = array_of(numbers, i32(), 2, block, again, PACKBUF_FORM_ARRAY);
  t[5] = array_of(NULL, i32(), 2, flat, NULL, PACKBUF_FORM_ARRAY);
  t[6] = array_of(NULL, i32(), 2, thin, NULL, PACKBUF_FORM_ARRAY);
  t[7] = array_of(numbers + 3, i32(), 0, NULL, NULL, PACKBUF_FORM_ARRAY);
  mv_trip_begin(&trip, 8, NULL);
  tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &trip.error) && packs(&trip),
         "one array a row: mixed ranks, strides, a null, empties");
  tap_ok(is(&trip, "x", 0, "a.i32[2](0 1)") && is(&trip, "x", 1, "a.i32[2](5 4)") && is(&trip, "x", 2, "null"),
         "a row, a row with a negative stride, a null");
  tap_ok(is(&trip, "x", 3, "a.i32[2 3](0 2 4 1 3 5)") && is(&trip, "x", 4, "a.i32[2 3](0 1 2 0 1 2)"),
         "Fortran order, stride 0");
  tap_ok(is(&trip, "x", 5, "a.i32[0 3]()") && is(&trip, "x", 6, "a.i32[2 0]()") && is(&trip, "x", 7, "a.i32[](3)"),
         "empties of shapes [0, 3] and [2, 0], a row of no dimensions");
  mv_trip_end(&trip);

  for (unsigned i = 0; i < 8; i++) t[i].form = 0;
  mv_trip_begin(&trip, 8, NULL);
  tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &trip.error) && packs(&trip) &&
             is(&trip, "x", 3, "t.i32[2 3](0 2 4 1 3 5)"),
         "the same as tensors");
  mv_trip_end(&trip);

  t[4].dtype = f32();
  mv_trip_begin(&trip, 8, NULL);
  tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_WRONG_TYPE && error.row == 4,
         "a row of another dtype: WRONG_TYPE, row 4");
  t[4].dtype = i32();
  t[3].form = PACKBUF_FORM_ARRAY;
  tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_WRONG_TYPE && error.row == 3,
         "a row of another form: WRONG_TYPE, row 3");
  t[3].form = 0;
  t[5].shape = two;
  t[5].rank = 1;
  tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 5,
         "a row without data: INVALID_ARGUMENT, row 5");
  memset(t, 0, sizeof t);
  tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &error) && packs(&trip) && is(&trip, "x", 7, "null"),
         "all rows null");
  mv_trip_end(&trip);

  t[1] = array_of(numbers, i32(), 3, cube, NULL, 0);
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &trip.error) && packs(&trip) && is(&trip, "x", 0, "null") &&
             is(&trip, "x", 1, "t.i32[1 2 3](0 1 2 3 4 5)") && storage(&trip, "x", PACKBUF_ROLE_NDIMS) == 0,
         "one row of three dimensions among nulls has no ndims");
  mv_trip_end(&trip);
  for (unsigned i = 0; i < 3; i++) t[i] = array_of(numbers, i32(), 0, NULL, NULL, PACKBUF_FORM_SCALAR);
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_WRONG_TYPE, "scalars as arrays: WRONG_TYPE");
  mv_trip_end(&trip);
  mv_free();
}

/* ---- strings and bytes ---- */

static void test_texts(void) {
  packbuf_text cells[6], odd[3];
  packbuf_error error;
  uint64_t size;
  mv_trip trip;
  cells[0] = text_of("hello");
  cells[1] = text_of(NULL);
  cells[2] = text_of("");
  cells[3] = text_of("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  cells[4].data = "a\0b";
  cells[4].size = 3;
  cells[5] = text_of("a string of more than sixteen bytes");
  mv_trip_begin(&trip, 6, NULL);
  tap_ok(!packbuf_add_strings(&trip.batch, "s", cells, &trip.error) &&
             !packbuf_add_bytes(&trip.batch, "b", cells, &trip.error) && packs(&trip),
         "strings and bytes");
  tap_ok(is(&trip, "s", 0, "\"hello\"") && is(&trip, "s", 1, "null") && is(&trip, "s", 2, "\"\"") &&
             is(&trip, "s", 3, "\"\\xc3\\xa9\\xe2\\x82\\xac\\xf0\\x9f\\x98\\x80\"") &&
             is(&trip, "s", 4, "\"a\\x00b\"") && is(&trip, "s", 5, "\"a string of more than sixteen bytes\""),
         "strings: null and empty are two things, NUL inside, beyond ASCII");
  tap_ok(is(&trip, "b", 0, "b\"hello\"") && is(&trip, "b", 1, "null") && is(&trip, "b", 2, "b\"\"") &&
             is(&trip, "b", 4, "b\"a\\x00b\""),
         "bytes");
  mv_trip_end(&trip);
  odd[0] = text_of("fine");
  odd[1] = text_of(NULL);
  odd[2] = text_of("four\xed\xa0\x80");
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_strings(&trip.batch, "s", odd, &error) &&
             packbuf_measure(&trip.batch, &size, &error) == PACKBUF_BAD_UTF8 && error.row == 2 && error.offset == 4 &&
             strcmp(error.path, "s") == 0,
         "a surrogate: BAD_UTF8 with field, row 2 and offset 4");
  tap_ok(packbuf_measure(&trip.batch, &size, NULL) == PACKBUF_BAD_UTF8, "and again, without an error to fill");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_bytes(&trip.batch, "b", odd, &trip.error) && packs(&trip) &&
             is(&trip, "b", 2, "b\"four\\xed\\xa0\\x80\""),
         "bytes may be any");
  mv_trip_end(&trip);
  odd[0] = odd[1] = odd[2] = text_of(NULL);
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_strings(&trip.batch, "s", odd, &trip.error) && packs(&trip) && is(&trip, "s", 0, "null") &&
             is(&trip, "s", 2, "null"),
         "strings that are all null");
  mv_trip_end(&trip);
  odd[0] = odd[1] = odd[2] = text_of("");
  mv_trip_begin(&trip, 3, NULL);
  tap_ok(!packbuf_add_strings(&trip.batch, "s", odd, &trip.error) && packs(&trip) && is(&trip, "s", 0, "\"\"") &&
             is(&trip, "s", 2, "\"\""),
         "strings that are all empty");
  mv_trip_end(&trip);
  mv_free();
}

/* ---- batch values, metadata, names ---- */

static void test_values_and_metadata(void) {
  static const double reward[2] = {0.5, 1.5};
  static const uint64_t two[1] = {2};
  packbuf_tensor t = array_of(reward, f64(), 1, two, NULL, 0);
  size_t count;
  packbuf_value *nested = mv_column("{\"b\" 1 \"c.d\" [{\"e\" 2}]} {\"b\" 3 \"c.d\" []}", &count),
                *all = mv_column("{\"policy\" 17 \"tokenizer\" [\"a\" \"b\"] \"reward\" t.f32[2](1 2) \"none\" null}",
                                 &count);
  packbuf_value values;
  packbuf_error error;
  uint64_t size;
  mv_trip trip;
  mv_trip_begin(&trip, 2, NULL);
  for (size_t i = 0; i < 4; i++) {
    char name[16];
    packbuf_value temporary = all->as.dict.entries[i].value;
    memcpy(name, all->as.dict.entries[i].key.as.text.data, all->as.dict.entries[i].key.as.text.size + 1);
    if (packbuf_add_batch_value(&trip.batch, all->as.dict.entries[i].key.as.text.data, &temporary, &trip.error))
      tap_note("%s", mv_error(&trip.error));
    temporary = packbuf_string("overwritten"); /* the value was copied */
    (void)temporary;
  }
  tap_ok(!packbuf_add_tensor(&trip.batch, "reward", &t, NULL, &trip.error) &&
             !packbuf_add_values(&trip.batch, "a", nested, &trip.error),
         "fields after batch values, one with the same name");
  tap_ok(!packbuf_add_metadata(&trip.batch, "a.c\\.d[0].e", "unit", "s", &trip.error) &&
             !packbuf_add_metadata(&trip.batch, NULL, "run", "7", &trip.error) &&
             !packbuf_add_metadata(&trip.batch, "reward", "zz", "", &trip.error) &&
             !packbuf_add_metadata(&trip.batch, "reward", "z", "\xe2\x82\xac", &trip.error) &&
             !packbuf_add_metadata(&trip.batch, NULL, "", "empty key", &trip.error) &&
             !packbuf_add_metadata(&trip.batch, "a", "z", "node", &trip.error),
         "metadata of the buffer, a field, a node, a nested leaf");
  if (tap_ok(packs(&trip), "they pack")) {
    tap_ok(trip.view.field_count == 2 && trip.view.value_count == 4 && trip.view.metadata_count == 6,
           "2 fields, 4 batch values, 6 pairs");
    tap_ok(
        packbuf_read_batch_values(&trip.view, &trip.back, &values, &trip.error) == PACKBUF_OK && mv_same(&values, all),
        "batch values come back");
    tap_ok(is(&trip, "reward", 1, "1.5") && is(&trip, "a", 0, "{\"b\" 1 \"c.d\" [{\"e\" 2}]}"), "fields come back");
    tap_ok(metadata_is(&trip, 0, "reward", "z", "\xe2\x82\xac") && metadata_is(&trip, 1, "reward", "zz", "") &&
               metadata_is(&trip, 2, "a", "z", "node") && metadata_is(&trip, 3, "a.c\\.d[0].e", "unit", "s") &&
               metadata_is(&trip, 4, "", "", "empty key") && metadata_is(&trip, 5, "", "run", "7"),
           "pairs come back, sorted by node and key");
    tap_ok(packbuf_get_metadata(&trip.view, 6, (packbuf_metadata *)mv_alloc(sizeof(packbuf_metadata)), &error) ==
               PACKBUF_OUT_OF_RANGE,
           "there is no seventh pair");
  }
  mv_trip_end(&trip);

  mv_trip_begin(&trip, 2, NULL);
  packbuf_add_tensor(&trip.batch, "reward", &t, NULL, NULL);
  packbuf_add_metadata(&trip.batch, "reward.x", "k", "v", NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_FOUND && strcmp(error.path, "reward.x") == 0,
         "metadata of a path that does not exist: NOT_FOUND, with the path");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 2, NULL);
  packbuf_add_tensor(&trip.batch, "reward", &t, NULL, NULL);
  packbuf_add_metadata(&trip.batch, "reward", "k", "v", NULL);
  packbuf_add_metadata(&trip.batch, "reward", "k", "w", NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_DUPLICATE_NAME && strcmp(error.path, "reward") == 0,
         "a metadata key twice: DUPLICATE_NAME");
  tap_ok(packbuf_add_metadata(&trip.batch, NULL, "\xff", "v", &error) == PACKBUF_BAD_UTF8 &&
             packbuf_add_metadata(&trip.batch, NULL, "k", "\xff", &error) == PACKBUF_BAD_UTF8,
         "metadata that is not UTF-8: BAD_UTF8");
  mv_trip_end(&trip);

  mv_trip_begin(&trip, 2, NULL);
  packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
  packbuf_add_tensor(&trip.batch, "b", &t, NULL, NULL);
  packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_DUPLICATE_NAME && strcmp(error.path, "a") == 0,
         "two fields of one name: DUPLICATE_NAME, with the name");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 2, NULL);
  values = packbuf_int(1);
  packbuf_add_batch_value(&trip.batch, "v", &values, NULL);
  packbuf_add_batch_value(&trip.batch, "v", &values, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_DUPLICATE_NAME,
         "two batch values of one name: DUPLICATE_NAME");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 2, NULL);
  packbuf_add_tensor(&trip.batch, "", &t, NULL, NULL);
  packbuf_add_tensor(&trip.batch, "a.b", &t, NULL, NULL);
  packbuf_add_values(&trip.batch, "a", nested, NULL);
  packbuf_add_tensor(&trip.batch, "\xc3\xa9", &t, NULL, NULL);
  tap_ok(packs(&trip) && is(&trip, "", 0, "0.5") && is(&trip, "a\\.b", 0, "0.5") && is(&trip, "a.b", 0, "1") &&
             is(&trip, "\xc3\xa9", 1, "1.5"),
         "an empty name, a name with a dot beside a path, beyond ASCII");
  mv_trip_end(&trip);
  mv_free();
}

/* ---- rows ---- */

static packbuf_status add_rows(mv_trip *trip, const char *notation) {
  size_t rows;
  packbuf_value *values = mv_column(notation, &rows);
  mv_trip_begin(trip, rows, NULL);
  return packbuf_add_rows(&trip->batch, values, &trip->error);
}

static int row_is(mv_trip *trip, uint64_t row, const char *notation) {
  size_t count;
  packbuf_value *want = mv_column(notation, &count), got;
  return packbuf_read_row(&trip->view, row, &trip->back, &got, &trip->error) == PACKBUF_OK && mv_same(want, &got);
}

static void test_rows(void) {
  enum { KEYS = 300, ROWS = 20 };
  packbuf_value *wide = (packbuf_value *)mv_alloc(ROWS * sizeof *wide);
  packbuf_value *row;
  packbuf_node node;
  mv_trip trip;
  int good = 1;
  tap_ok(!add_rows(&trip, "{\"a\" 1 \"b\" \"x\"} {\"b\" \"y\" \"a\" 2} {} {\"c\" null \"a\" 3}") && packs(&trip),
         "rows with missing keys and other orders");
  tap_ok(row_is(&trip, 0, "{\"a\" 1 \"b\" \"x\"}") && row_is(&trip, 1, "{\"a\" 2 \"b\" \"y\"}") &&
             row_is(&trip, 2, "{}") && row_is(&trip, 3, "{\"a\" 3 \"c\" null}"),
         "come back; null and missing are two things");
  tap_ok(trip.view.field_count == 3 && !packbuf_get_node(&trip.view, 0, &node, NULL) && node.name.data[0] == 'a' &&
             !packbuf_get_node(&trip.view, 2, &node, NULL) && node.name.data[0] == 'c',
         "in first-seen order");
  tap_ok(is(&trip, "b", 2, "missing") && is(&trip, "c", 3, "null") && is(&trip, "c", 0, "missing"),
         "a cell says missing");
  mv_trip_end(&trip);
  tap_ok(add_rows(&trip, "{\"a\" 1} 5 {}") == PACKBUF_WRONG_TYPE && trip.error.row == 1,
         "a row that is no dict: WRONG_TYPE, row 1");
  mv_trip_end(&trip);
  tap_ok(add_rows(&trip, "{\"a\" 1} {} null") == PACKBUF_WRONG_TYPE && trip.error.row == 2,
         "a row that is null: WRONG_TYPE, row 2");
  mv_trip_end(&trip);
  tap_ok(add_rows(&trip, "{\"a\" 1} {1 2}") == PACKBUF_WRONG_TYPE && trip.error.row == 1,
         "a key that is no string: WRONG_TYPE, row 1");
  mv_trip_end(&trip);
  tap_ok(add_rows(&trip, "{\"a\" 1} {\"b\" 1 \"a\" 1 \"b\" 2}") == PACKBUF_DUPLICATE_NAME && trip.error.row == 1,
         "a key twice in a row: DUPLICATE_NAME, row 1");
  mv_trip_end(&trip);
  tap_ok(add_rows(&trip, "{\"a\" 1} {\"\\xff\" 1}") == PACKBUF_BAD_UTF8, "a key that is not UTF-8: BAD_UTF8");
  mv_trip_end(&trip);
  tap_ok(!add_rows(&trip, "{} {}") && packs(&trip) && trip.view.field_count == 0 && row_is(&trip, 1, "{}"),
         "rows without keys");
  mv_trip_end(&trip);
  for (size_t i = 0; i < ROWS;
       i++) { /* far more keys than a dict may have to expand; each row begins elsewhere and lacks some */
    packbuf_value *pairs = (packbuf_value *)mv_alloc(2 * KEYS * sizeof *pairs);
    size_t count = 0;
    for (size_t k = 0; k < KEYS; k++) {
      size_t key = (k + i * 37) % KEYS;
      char name[16];
      int size = snprintf(name, sizeof name, "key %zu", key);
      if (key % 7 == i % 7) continue;
      pairs[count++] = packbuf_string_n((char *)mv_copy(name, (size_t)size), (size_t)size);
      pairs[count++] = packbuf_int((int64_t)(i * 1000 + key));
    }
    wide[i] = mv_dict_of(pairs, count);
  }
  mv_trip_begin(&trip, ROWS, NULL);
  tap_ok(!packbuf_add_rows(&trip.batch, wide, &trip.error) && packs(&trip) && trip.view.field_count == KEYS,
         "300 keys at the top");
  row = (packbuf_value *)mv_alloc(ROWS * sizeof *row);
  good = packbuf_read_rows(&trip.view, 0, ROWS, &trip.back, row, &trip.error) == PACKBUF_OK;
  for (size_t i = 0; i < ROWS && good; i++) good = mv_same(&wide[i], &row[i]);
  tap_ok(good, "come back");
  mv_trip_end(&trip);
  {
    size_t rows;
    packbuf_value *values = mv_column("{\"a\" 1} {\"a\" 2}", &rows);
    uint64_t size;
    mv_trip_begin(&trip, 2, NULL);
    packbuf_add_values(&trip.batch, "a", values, NULL);
    packbuf_add_rows(&trip.batch, values, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &trip.error) == PACKBUF_DUPLICATE_NAME,
           "a key that is the name of a field: DUPLICATE_NAME");
    mv_trip_end(&trip);
  }
  mv_free();
}

/* ---- few rows, few fields ---- */

static void test_small(void) {
  packbuf_options options = packbuf_default_options();
  static const int64_t no_offsets[1] = {0};
  uint64_t none[3] = {0, 4, 2}, size = 1;
  packbuf_tensor t = array_of(NULL, f32(), 3, none, NULL, PACKBUF_FORM_TENSOR);
  packbuf_value value = packbuf_null();
  packbuf_ragged r;
  packbuf_error error;
  packbuf_batch batch;
  packbuf_arena arena;
  mv_trip trip;
  mv_trip_begin(&trip, 0, NULL);
  tap_ok(packs(&trip) && trip.size == 128 && trip.view.rows == 0, "no rows, no fields: 128 bytes");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 5, NULL);
  tap_ok(packs(&trip) && trip.size == 128 && trip.view.rows == 5 && row_is(&trip, 4, "{}"),
         "5 rows, no fields: 128 bytes");
  mv_trip_end(&trip);
  memset(&r, 0, sizeof r);
  r.dtype = i32();
  r.offset_bits = 64;
  r.offsets = no_offsets;
  mv_trip_begin(&trip, 0, NULL);
  tap_ok(!packbuf_add_tensor(&trip.batch, "dense", &t, NULL, &trip.error) &&
             !packbuf_add_ragged(&trip.batch, "ragged", &r, &trip.error) &&
             !packbuf_add_tensors(&trip.batch, "tensors", NULL, &trip.error) &&
             !packbuf_add_strings(&trip.batch, "strings", NULL, &trip.error) &&
             !packbuf_add_bytes(&trip.batch, "bytes", NULL, &trip.error) &&
             !packbuf_add_values(&trip.batch, "values", NULL, &trip.error) &&
             !packbuf_add_rows(&trip.batch, NULL, &trip.error) &&
             !packbuf_add_batch_value(&trip.batch, "value", &value, &trip.error),
         "no rows: every way of adding takes no data");
  tap_ok(packs(&trip) && trip.view.field_count == 6 && trip.view.value_count == 1, "and packs");
  {
    packbuf_node node;
    tap_ok(find(&trip, "dense", &node) && node.rank == 2 && node.shape[0] == 4 && node.shape[1] == 2 &&
               node.dtype.bits == 32,
           "the shape of a cell is kept");
    tap_ok(packbuf_read_cell(&trip.view, 0, 0, &trip.back, &value, &error) == PACKBUF_OUT_OF_RANGE,
           "there is no row 0: OUT_OF_RANGE");
  }
  mv_trip_end(&trip);
  tap_ok(!add_rows(&trip, "{\"id\" \"s1\" \"n\" 3 \"logp\" [0.5 0.25] \"t\" t.f32[2](1 2)}") && packs(&trip) &&
             trip.size <= 1100 && row_is(&trip, 0, "{\"id\" \"s1\" \"n\" 3 \"logp\" [0.5 0.25] \"t\" t.f32[2](1 2)}"),
         "one row of four fields stays small: %u bytes, nothing outside the head", (unsigned)trip.size);
  tap_ok(trip.view.head_length == trip.view.total_length, "all inline");
  mv_trip_end(&trip);

  packbuf_arena_init(&arena, NULL);
  options.alignment_exponent = 5;
  tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT,
         "alignment 32: INVALID_ARGUMENT");
  options.alignment_exponent = 13;
  tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT,
         "alignment 8192: INVALID_ARGUMENT");
  options = packbuf_default_options();
  options.packing = 6;
  tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT,
         "a packing that there is not: INVALID_ARGUMENT");
  options = packbuf_default_options();
  options.data_checksums = 2;
  tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT,
         "checksums 2: INVALID_ARGUMENT");
  options = packbuf_default_options();
  options.schema_count = 1;
  tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT,
         "a count of schemas without schemas: INVALID_ARGUMENT");
  tap_ok(packbuf_batch_init(&batch, ((uint64_t)1 << 48) + 1, &arena, NULL, &error) == PACKBUF_LIMIT,
         "more than 2^48 rows: LIMIT");
  tap_ok(packbuf_batch_init(NULL, 1, &arena, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_measure(NULL, &size, &error) == PACKBUF_INVALID_ARGUMENT,
         "no batch: INVALID_ARGUMENT");
  packbuf_arena_free(&arena);
  mv_free();
}

int main(void) {
  test_dense();
  test_dense_edges();
  test_ragged();
  test_ragged_edges();
  test_tensors();
  test_texts();
  test_values_and_metadata();
  test_rows();
  test_small();
  mv_free();
  return tap_plan_done();
}
