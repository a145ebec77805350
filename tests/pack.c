/* Building a batch, measuring it and writing it: each way of adding a field, schema, storage, exact size, capacity, memory that ends, sources that change,
 * device memory. What is written is opened, verified and read back; the elements are compared with a walk over the source that this file makes itself. */
#include "../packbuf.h"
#include "bytes.h"
#include "tap.h"
#include "matrix_values.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- helpers ---- */

/* Packs, and says why not. */
static int packs(mv_trip *trip)
{
    packbuf_status status = mv_trip_pack(trip);
    if (status) tap_note("%s: %s (%s)", trip->step, packbuf_status_name(status), mv_error(&trip->error));
    return status == PACKBUF_OK;
}

static int find(mv_trip *trip, const char *path, packbuf_node *node)
{
    return packbuf_find(&trip->view, 0, path, node, &trip->error) == PACKBUF_OK;
}

static packbuf_value cell(mv_trip *trip, const char *path, uint64_t row)
{
    packbuf_node node;
    packbuf_value value = packbuf_string("(unreadable)");
    if (find(trip, path, &node) && packbuf_read_cell(&trip->view, node.index, row, &trip->back, &value, &trip->error)) tap_note("%s", mv_error(&trip->error));
    return value;
}

/* 1 when the cell equals the value in the notation. */
static int is(mv_trip *trip, const char *path, uint64_t row, const char *notation)
{
    size_t count;
    packbuf_value *want = mv_column(notation, &count), got = cell(trip, path, row);
    return count == 1 && mv_same(want, &got);
}

/* Storage of a buffer; 0 when there is none. */
static unsigned storage(mv_trip *trip, const char *path, packbuf_role role)
{
    packbuf_node node;
    packbuf_buffer buffer;
    if (!find(trip, path, &node) || packbuf_get_buffer(&trip->view, &node, role, 0, &buffer, NULL)) return 0;
    return buffer.storage;
}

static packbuf_tensor array_of(const void *data, packbuf_dtype dtype, unsigned rank, const uint64_t *shape, const int64_t *strides, unsigned form)
{
    packbuf_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    tensor.data = data;
    tensor.dtype = dtype;
    tensor.rank = (uint8_t)rank;
    tensor.shape = shape;
    tensor.strides = strides;
    tensor.form = (uint8_t)form;
    return tensor;
}

static packbuf_dtype i64(void) { return packbuf_dtype_of(PACKBUF_DTYPE_INT, 64); }
static packbuf_dtype i32(void) { return packbuf_dtype_of(PACKBUF_DTYPE_INT, 32); }
static packbuf_dtype f32(void) { return packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32); }
static packbuf_dtype f64(void) { return packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64); }
static packbuf_dtype u8(void) { return packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8); }

/* A random source: every byte random, but bools. */
static uint8_t *random_bytes(size_t size, packbuf_dtype dtype)
{
    uint8_t *bytes = (uint8_t *)mv_alloc(size + 64);
    for (size_t i = 0; i < size + 64; i++) bytes[i] = (uint8_t)(dtype.code == PACKBUF_DTYPE_BOOL ? mv_random() >> 40 & 1 : mv_random() >> 40);
    return bytes;
}

static int bit(const uint8_t *bitmap, uint64_t row)
{
    return !bitmap || (bitmap[row / 8] >> (row % 8) & 1);
}

/* ---- dense arrays ---- */

enum { CONTIGUOUS, FORTRAN, PADDED, NEGATIVE, BROADCAST, UNALIGNED, MASKED, LAYOUTS };
static const char *const layout_names[LAYOUTS] = {"contiguous", "Fortran order", "padded rows", "negative strides", "zero strides", "unaligned data", "padded, with nulls"};

/* A source of a layout: shape, strides and where element 0 is. */
static packbuf_tensor dense_source(unsigned layout, unsigned rank, const uint64_t *shape, int64_t *strides, packbuf_dtype dtype)
{
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
    return array_of(data, dtype, rank, shape, layout == CONTIGUOUS || layout == UNALIGNED ? NULL : strides, PACKBUF_FORM_NATURAL);
}

static const uint8_t *element_of(const packbuf_tensor *t, uint64_t row, uint64_t inside)
{
    uint64_t per_row = 1;
    for (unsigned d = 1; d < t->rank; d++) per_row *= t->shape[d];
    return mv_element_at(t, row * per_row + inside);
}

/* The value that a cell of rank 1 (a plain number) must read as, from its bits; 0 when the reader may choose (no plain number of that dtype exists). */
static int number_of(packbuf_dtype dtype, const uint8_t *at, packbuf_value *value)
{
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

static int compare_dense(mv_trip *trip, const packbuf_tensor *t, const uint8_t *validity)
{
    packbuf_node node;
    packbuf_buffer data;
    uint64_t per_row = 1, rows = t->shape[0];
    size_t element = t->dtype.bits / 8;
    uint8_t *stored;
    if (!find(trip, "x", &node) || node.codec != PACKBUF_CODEC_NDARRAY || node.rank != t->rank - 1 || node.rows != rows) return 0;
    for (unsigned d = 1; d < t->rank; d++) {
        if (node.shape[d - 1] != t->shape[d]) return 0;
        per_row *= t->shape[d];
    }
    if (packbuf_get_buffer(&trip->view, &node, PACKBUF_ROLE_DATA, 0, &data, &trip->error) || data.count != rows * per_row) return 0;
    stored = (uint8_t *)mv_alloc((size_t)(rows * per_row) * element);
    if (packbuf_copy_elements(&trip->view, &data, 0, data.count, stored, rows * per_row * element, &trip->error)) return 0;
    for (uint64_t row = 0; row < rows; row++) {
        packbuf_value want = packbuf_null(), got = cell(trip, "x", row);
        packbuf_tensor contiguous;
        int present = bit(validity, row), exact = 1;
        for (uint64_t i = 0; i < per_row; i++) {
            static const uint8_t zero[16];
            if (memcmp(stored + (row * per_row + i) * element, present ? element_of(t, row, i) : zero, element) != 0) return 0;
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

static void test_dense(void)
{
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
                good = !packbuf_add_tensor(&trip.batch, "x", &source, layout == MASKED ? validity : NULL, &trip.error) && packs(&trip) &&
                       compare_dense(&trip, &source, layout == MASKED ? validity : NULL);
                mv_trip_end(&trip);
            }
            mv_free();
            tap_ok(good, "dense, %u dimension(s), %s, every dtype%s%s", rank, layout_names[layout], good ? "" : ": failed at ", good ? "" : mv_dtypes[dtype - 1].name);
        }
}

static void test_dense_edges(void)
{
    static const double numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint64_t shape[9] = {4, 2, 1, 1, 1, 1, 1, 1, 1}, huge[3] = {4, (uint64_t)1 << 40, (uint64_t)1 << 40}, empty[3] = {4, 0, 3};
    packbuf_tensor t = array_of(numbers, f64(), 2, shape, NULL, PACKBUF_FORM_ARRAY);
    packbuf_error error;
    mv_trip trip;
    mv_trip_begin(&trip, 4, NULL);
    t.rank = 0;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_ROW_COUNT, "a dense array of no dimensions has no rows: ROW_COUNT");
    t.rank = 1;
    shape[0] = 3;
    tap_ok(packbuf_add_tensor(&trip.batch, "bad.rows", &t, NULL, &error) == PACKBUF_ROW_COUNT && strcmp(error.path, "bad.rows") == 0, "3 rows in a batch of 4: ROW_COUNT, with the name");
    shape[0] = 4;
    t.rank = 9;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT, "9 dimensions: INVALID_ARGUMENT");
    t.rank = 2;
    t.dtype.lanes = 2;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_UNSUPPORTED_DTYPE, "two lanes: UNSUPPORTED_DTYPE");
    t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 4);
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_UNSUPPORTED_DTYPE, "int4, which is reserved: UNSUPPORTED_DTYPE");
    t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 1);
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_UNSUPPORTED_DTYPE, "single bits are for bitmaps: UNSUPPORTED_DTYPE");
    t.dtype = f64();
    t.form = 7;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT, "a form that does not exist: INVALID_ARGUMENT");
    t.form = PACKBUF_FORM_SCALAR;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT, "scalars with dimensions: INVALID_ARGUMENT");
    t.form = PACKBUF_FORM_ARRAY;
    t.shape = NULL;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT, "no shape: INVALID_ARGUMENT");
    t.shape = huge;
    t.rank = 3;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT, "a shape whose product overflows: INVALID_ARGUMENT");
    t.shape = shape;
    t.rank = 2;
    t.data = NULL;
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT, "no data: INVALID_ARGUMENT");
    tap_ok(packbuf_add_tensor(NULL, "x", &t, NULL, &error) == PACKBUF_INVALID_ARGUMENT && packbuf_add_tensor(&trip.batch, NULL, &t, NULL, NULL) == PACKBUF_INVALID_ARGUMENT, "no batch, no name: INVALID_ARGUMENT");
    t.data = numbers;
    tap_ok(packbuf_add_tensor(&trip.batch, "\xff", &t, NULL, &error) == PACKBUF_BAD_UTF8, "a name that is not UTF-8: BAD_UTF8");
    t.shape = empty;
    t.rank = 3;
    t.data = NULL;
    tap_ok(packbuf_add_tensor(&trip.batch, "empty", &t, NULL, &error) == PACKBUF_OK, "an array of no elements needs no data");
    t = array_of(numbers, f64(), 1, shape, NULL, PACKBUF_FORM_SCALAR);
    tap_ok(packbuf_add_tensor(&trip.batch, "scalar", &t, NULL, &error) == PACKBUF_OK && packs(&trip), "none of the refused left a trace: the batch packs");
    tap_ok(trip.view.field_count == 2 && is(&trip, "scalar", 2, "s.f64(3)") && is(&trip, "empty", 3, "a.f64[0 3]()"), "a column of scalars; cells of shape [0, 3]");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- ragged rows ---- */

/* Random rows by offsets; the expected cells are gathered from the description alone. */
static int ragged_case(unsigned variant, packbuf_dtype dtype)
{
    uint64_t rows = 1 + mv_below(30), items = 0, item_shape[2], per_item = 1;
    int64_t offsets[32], lengths[32], stride = 0;
    int32_t narrow[2][32];
    uint8_t validity[4];
    size_t element = dtype.bits / 8, item;
    packbuf_ragged r;
    mv_trip trip;
    int good;
    memset(&r, 0, sizeof r);
    for (unsigned i = 0; i < 4; i++) validity[i] = (uint8_t)mv_random();
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
        uint64_t shape[3] = {0, 0, 0}, count = variant & 2 ? (uint64_t)lengths[row] : (uint64_t)(offsets[row + 1] - offsets[row]);
        uint8_t *gathered = (uint8_t *)mv_alloc((size_t)count * item);
        packbuf_tensor t;
        shape[0] = count;
        for (unsigned d = 0; d < r.item_rank; d++) shape[d + 1] = item_shape[d];
        for (uint64_t i = 0; i < count; i++) memcpy(gathered + i * item, (const uint8_t *)r.data + stride * (offsets[row] + (int64_t)i), item);
        t = array_of(gathered, dtype, r.item_rank + 1u, shape, NULL, r.form);
        if (bit(r.validity, row)) want = packbuf_tensor_value(&t);
        good = mv_same(&want, &got);
    }
    if (!good) tap_note("variant %u, %s", variant, mv_error(&trip.error));
    mv_trip_end(&trip);
    mv_free();
    return good;
}

static void test_ragged(void)
{
    for (unsigned dtype = 0; dtype < MV_DTYPES; dtype++) {
        int good = 1;
        for (unsigned variant = 0; variant < 256 && good; variant++) good = ragged_case(variant, mv_dtype_at(dtype));
        tap_ok(good, "ragged %s: 256 ways (32 and 64 bits, not from 0, lengths with holes, items of rank 0 to 2, strides, nulls)", mv_dtypes[dtype].name);
    }
}

static void test_ragged_edges(void)
{
    static const int32_t numbers[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    int64_t descending[4] = {0, 5, 3, 9}, passing[4] = {0, 2, 4, 11}, holes[4] = {0, 9, 4, 0}, below[4] = {-1, 2, 4, 6}, fine[4] = {2, 2, 5, 10};
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
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 1 && strcmp(error.path, "x") == 0,
           "offsets that descend: OUT_OF_RANGE, row 1 of x");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    r.offsets = passing;
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 2, "an offset past the items: OUT_OF_RANGE, row 2");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    r.offsets = below;
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 0, "an offset below 0: OUT_OF_RANGE, row 0");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    r.offsets = holes32;
    r.lengths = lengths32;
    r.offset_bits = 32;
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 2, "a length below 0: OUT_OF_RANGE, row 2");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    r.offset_bits = 64;
    r.offsets = holes;
    r.lengths = lengths;
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packbuf_measure(&trip.batch, &size, &error) == PACKBUF_OUT_OF_RANGE && error.row == 1, "offset and length past the items: OUT_OF_RANGE, row 1");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    r.validity = &validity;
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "t.i32[2](0 1)") && is(&trip, "x", 1, "null") && is(&trip, "x", 2, "t.i32[1](4)"),
           "the extent of an absent row is not looked at");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    r.lengths = NULL;
    r.offsets = descending;
    r.validity = &validity;
    descending[0] = 0, descending[1] = 3, descending[2] = 1, descending[3] = 4; /* only the absent row descends */
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "t.i32[3](0 1 2)") && is(&trip, "x", 1, "null") && is(&trip, "x", 2, "t.i32[3](1 2 3)"),
           "offsets may descend across an absent row");
    mv_trip_end(&trip);
    r.validity = NULL;
    r.lengths = NULL;
    r.offsets = fine;
    r.form = PACKBUF_FORM_LIST;
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "[]") && is(&trip, "x", 1, "[2 3 4]") && is(&trip, "x", 2, "[5 6 7 8 9]"), "rows that are lists");
    mv_trip_end(&trip);
    r.form = PACKBUF_FORM_SCALAR;
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT, "ragged scalars: INVALID_ARGUMENT");
    r.form = PACKBUF_FORM_BYTES;
    tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT, "a form of items: INVALID_ARGUMENT");
    r.form = 0;
    r.offset_bits = 16;
    tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT, "offsets of 16 bits: INVALID_ARGUMENT");
    r.offset_bits = 64;
    r.offsets = NULL;
    tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT, "no offsets: INVALID_ARGUMENT");
    r.offsets = fine;
    r.item_rank = 8;
    tap_ok(packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_INVALID_ARGUMENT, "items of 8 dimensions: INVALID_ARGUMENT");
    r.item_rank = 7;
    r.item_shape = shape;
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 1, "t.i32[3 1 1 1 1 1 1 1](2 3 4)"), "items of 7 dimensions: rows of 8");
    mv_trip_end(&trip);
    r.item_rank = 1;
    r.item_shape = none;
    r.data = NULL;
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_ragged(&trip.batch, "x", &r, &error) && packs(&trip) && is(&trip, "x", 0, "t.i32[0 0]()") && is(&trip, "x", 2, "t.i32[5 0]()"), "items of no elements keep their number");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- one array a row ---- */

static void test_tensors(void)
{
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
    tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &trip.error) && packs(&trip), "one array a row: mixed ranks, strides, a null, empties");
    tap_ok(is(&trip, "x", 0, "a.i32[2](0 1)") && is(&trip, "x", 1, "a.i32[2](5 4)") && is(&trip, "x", 2, "null"), "a row, a row with a negative stride, a null");
    tap_ok(is(&trip, "x", 3, "a.i32[2 3](0 2 4 1 3 5)") && is(&trip, "x", 4, "a.i32[2 3](0 1 2 0 1 2)"), "Fortran order, stride 0");
    tap_ok(is(&trip, "x", 5, "a.i32[0 3]()") && is(&trip, "x", 6, "a.i32[2 0]()") && is(&trip, "x", 7, "a.i32[](3)"), "empties of shapes [0, 3] and [2, 0], a row of no dimensions");
    mv_trip_end(&trip);

    for (unsigned i = 0; i < 8; i++) t[i].form = 0;
    mv_trip_begin(&trip, 8, NULL);
    tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &trip.error) && packs(&trip) && is(&trip, "x", 3, "t.i32[2 3](0 2 4 1 3 5)"), "the same as tensors");
    mv_trip_end(&trip);

    t[4].dtype = f32();
    mv_trip_begin(&trip, 8, NULL);
    tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_WRONG_TYPE && error.row == 4, "a row of another dtype: WRONG_TYPE, row 4");
    t[4].dtype = i32();
    t[3].form = PACKBUF_FORM_ARRAY;
    tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_WRONG_TYPE && error.row == 3, "a row of another form: WRONG_TYPE, row 3");
    t[3].form = 0;
    t[5].shape = two;
    t[5].rank = 1;
    tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 5, "a row without data: INVALID_ARGUMENT, row 5");
    memset(t, 0, sizeof t);
    tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &error) && packs(&trip) && is(&trip, "x", 7, "null"), "all rows null");
    mv_trip_end(&trip);

    t[1] = array_of(numbers, i32(), 3, cube, NULL, 0);
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_tensors(&trip.batch, "x", t, &trip.error) && packs(&trip) && is(&trip, "x", 0, "null") && is(&trip, "x", 1, "t.i32[1 2 3](0 1 2 3 4 5)") &&
               storage(&trip, "x", PACKBUF_ROLE_NDIMS) == 0,
           "one row of three dimensions among nulls has no ndims");
    mv_trip_end(&trip);
    for (unsigned i = 0; i < 3; i++) t[i] = array_of(numbers, i32(), 0, NULL, NULL, PACKBUF_FORM_SCALAR);
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(packbuf_add_tensors(&trip.batch, "x", t, &error) == PACKBUF_WRONG_TYPE, "scalars as arrays: WRONG_TYPE");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- strings and bytes ---- */

static packbuf_text text_of(const char *data)
{
    packbuf_text text;
    text.data = data;
    text.size = data ? strlen(data) : 0;
    return text;
}

static void test_texts(void)
{
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
    tap_ok(!packbuf_add_strings(&trip.batch, "s", cells, &trip.error) && !packbuf_add_bytes(&trip.batch, "b", cells, &trip.error) && packs(&trip), "strings and bytes");
    tap_ok(is(&trip, "s", 0, "\"hello\"") && is(&trip, "s", 1, "null") && is(&trip, "s", 2, "\"\"") && is(&trip, "s", 3, "\"\\xc3\\xa9\\xe2\\x82\\xac\\xf0\\x9f\\x98\\x80\"") &&
               is(&trip, "s", 4, "\"a\\x00b\"") && is(&trip, "s", 5, "\"a string of more than sixteen bytes\""),
           "strings: null and empty are two things, NUL inside, beyond ASCII");
    tap_ok(is(&trip, "b", 0, "b\"hello\"") && is(&trip, "b", 1, "null") && is(&trip, "b", 2, "b\"\"") && is(&trip, "b", 4, "b\"a\\x00b\""), "bytes");
    mv_trip_end(&trip);
    odd[0] = text_of("fine");
    odd[1] = text_of(NULL);
    odd[2] = text_of("four\xed\xa0\x80");
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_strings(&trip.batch, "s", odd, &error) && packbuf_measure(&trip.batch, &size, &error) == PACKBUF_BAD_UTF8 && error.row == 2 && error.offset == 4 && strcmp(error.path, "s") == 0,
           "a surrogate: BAD_UTF8 with field, row 2 and offset 4");
    tap_ok(packbuf_measure(&trip.batch, &size, NULL) == PACKBUF_BAD_UTF8, "and again, without an error to fill");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_bytes(&trip.batch, "b", odd, &trip.error) && packs(&trip) && is(&trip, "b", 2, "b\"four\\xed\\xa0\\x80\""), "bytes may be any");
    mv_trip_end(&trip);
    odd[0] = odd[1] = odd[2] = text_of(NULL);
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_strings(&trip.batch, "s", odd, &trip.error) && packs(&trip) && is(&trip, "s", 0, "null") && is(&trip, "s", 2, "null"), "strings that are all null");
    mv_trip_end(&trip);
    odd[0] = odd[1] = odd[2] = text_of("");
    mv_trip_begin(&trip, 3, NULL);
    tap_ok(!packbuf_add_strings(&trip.batch, "s", odd, &trip.error) && packs(&trip) && is(&trip, "s", 0, "\"\"") && is(&trip, "s", 2, "\"\""), "strings that are all empty");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- batch values, metadata, names ---- */

static int metadata_is(mv_trip *trip, uint32_t index, const char *path, const char *key, const char *text)
{
    packbuf_metadata m;
    char at[64] = "";
    if (packbuf_get_metadata(&trip->view, index, &m, &trip->error)) return 0;
    if (m.node != PACKBUF_NO_NODE) packbuf_node_path(&trip->view, m.node, at, sizeof at);
    return strcmp(at, path) == 0 && mv_same_bytes(m.key.data, m.key.size, key, strlen(key)) && mv_same_bytes(m.text.data, m.text.size, text, strlen(text));
}

static void test_values_and_metadata(void)
{
    static const double reward[2] = {0.5, 1.5};
    static const uint64_t two[1] = {2};
    packbuf_tensor t = array_of(reward, f64(), 1, two, NULL, 0);
    size_t count;
    packbuf_value *nested = mv_column("{\"b\" 1 \"c.d\" [{\"e\" 2}]} {\"b\" 3 \"c.d\" []}", &count), *all = mv_column("{\"policy\" 17 \"tokenizer\" [\"a\" \"b\"] \"reward\" t.f32[2](1 2) \"none\" null}", &count);
    packbuf_value values;
    packbuf_error error;
    uint64_t size;
    mv_trip trip;
    mv_trip_begin(&trip, 2, NULL);
    for (size_t i = 0; i < 4; i++) {
        char name[16];
        packbuf_value temporary = all->as.dict.entries[i].value;
        memcpy(name, all->as.dict.entries[i].key.as.text.data, all->as.dict.entries[i].key.as.text.size + 1);
        if (packbuf_add_batch_value(&trip.batch, all->as.dict.entries[i].key.as.text.data, &temporary, &trip.error)) tap_note("%s", mv_error(&trip.error));
        temporary = packbuf_string("overwritten"); /* the value was copied */
        (void)temporary;
    }
    tap_ok(!packbuf_add_tensor(&trip.batch, "reward", &t, NULL, &trip.error) && !packbuf_add_values(&trip.batch, "a", nested, &trip.error), "fields after batch values, one with the same name");
    tap_ok(!packbuf_add_metadata(&trip.batch, "a.c\\.d[0].e", "unit", "s", &trip.error) && !packbuf_add_metadata(&trip.batch, NULL, "run", "7", &trip.error) &&
               !packbuf_add_metadata(&trip.batch, "reward", "zz", "", &trip.error) && !packbuf_add_metadata(&trip.batch, "reward", "z", "\xe2\x82\xac", &trip.error) &&
               !packbuf_add_metadata(&trip.batch, NULL, "", "empty key", &trip.error) && !packbuf_add_metadata(&trip.batch, "a", "z", "node", &trip.error),
           "metadata of the buffer, a field, a node, a nested leaf");
    if (tap_ok(packs(&trip), "they pack")) {
        tap_ok(trip.view.field_count == 2 && trip.view.value_count == 4 && trip.view.metadata_count == 6, "2 fields, 4 batch values, 6 pairs");
        tap_ok(packbuf_read_batch_values(&trip.view, &trip.back, &values, &trip.error) == PACKBUF_OK && mv_same(&values, all), "batch values come back");
        tap_ok(is(&trip, "reward", 1, "1.5") && is(&trip, "a", 0, "{\"b\" 1 \"c.d\" [{\"e\" 2}]}"), "fields come back");
        tap_ok(metadata_is(&trip, 0, "reward", "z", "\xe2\x82\xac") && metadata_is(&trip, 1, "reward", "zz", "") && metadata_is(&trip, 2, "a", "z", "node") &&
                   metadata_is(&trip, 3, "a.c\\.d[0].e", "unit", "s") && metadata_is(&trip, 4, "", "", "empty key") && metadata_is(&trip, 5, "", "run", "7"),
               "pairs come back, sorted by node and key");
        tap_ok(packbuf_get_metadata(&trip.view, 6, (packbuf_metadata *)mv_alloc(sizeof(packbuf_metadata)), &error) == PACKBUF_OUT_OF_RANGE, "there is no seventh pair");
    }
    mv_trip_end(&trip);

    mv_trip_begin(&trip, 2, NULL);
    packbuf_add_tensor(&trip.batch, "reward", &t, NULL, NULL);
    packbuf_add_metadata(&trip.batch, "reward.x", "k", "v", NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_FOUND && strcmp(error.path, "reward.x") == 0, "metadata of a path that does not exist: NOT_FOUND, with the path");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 2, NULL);
    packbuf_add_tensor(&trip.batch, "reward", &t, NULL, NULL);
    packbuf_add_metadata(&trip.batch, "reward", "k", "v", NULL);
    packbuf_add_metadata(&trip.batch, "reward", "k", "w", NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_DUPLICATE_NAME && strcmp(error.path, "reward") == 0, "a metadata key twice: DUPLICATE_NAME");
    tap_ok(packbuf_add_metadata(&trip.batch, NULL, "\xff", "v", &error) == PACKBUF_BAD_UTF8 && packbuf_add_metadata(&trip.batch, NULL, "k", "\xff", &error) == PACKBUF_BAD_UTF8, "metadata that is not UTF-8: BAD_UTF8");
    mv_trip_end(&trip);

    mv_trip_begin(&trip, 2, NULL);
    packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
    packbuf_add_tensor(&trip.batch, "b", &t, NULL, NULL);
    packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_DUPLICATE_NAME && strcmp(error.path, "a") == 0, "two fields of one name: DUPLICATE_NAME, with the name");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 2, NULL);
    values = packbuf_int(1);
    packbuf_add_batch_value(&trip.batch, "v", &values, NULL);
    packbuf_add_batch_value(&trip.batch, "v", &values, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_DUPLICATE_NAME, "two batch values of one name: DUPLICATE_NAME");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 2, NULL);
    packbuf_add_tensor(&trip.batch, "", &t, NULL, NULL);
    packbuf_add_tensor(&trip.batch, "a.b", &t, NULL, NULL);
    packbuf_add_values(&trip.batch, "a", nested, NULL);
    packbuf_add_tensor(&trip.batch, "\xc3\xa9", &t, NULL, NULL);
    tap_ok(packs(&trip) && is(&trip, "", 0, "0.5") && is(&trip, "a\\.b", 0, "0.5") && is(&trip, "a.b", 0, "1") && is(&trip, "\xc3\xa9", 1, "1.5"), "an empty name, a name with a dot beside a path, beyond ASCII");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- schema ---- */

static packbuf_schema schema_of(const char *path, packbuf_codec codec, packbuf_dtype dtype, unsigned flags)
{
    packbuf_schema schema;
    memset(&schema, 0, sizeof schema);
    schema.path = path;
    schema.codec = codec;
    schema.dtype = dtype;
    schema.flags = flags;
    return schema;
}

static void test_schema(void)
{
    static const int64_t sevens[40] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
    packbuf_dtype any = {0, 0, 0};
    int64_t counts[40];
    uint64_t forty[1] = {40}, size;
    uint8_t validity[5] = {0xff, 0xfb, 0xff, 0xff, 0xff};
    packbuf_schema schema[2];
    packbuf_options options = packbuf_default_options();
    packbuf_tensor t, rows[40];
    packbuf_text texts[40];
    packbuf_value values[40];
    packbuf_node node;
    packbuf_error error;
    size_t count;
    mv_trip trip;
    const void *typed;
    packbuf_buffer buffer;
    for (int i = 0; i < 40; i++) counts[i] = i * i;
    options.schemas = schema;
    options.schema_count = 1;

    schema[0] = schema_of("x", PACKBUF_CODEC_AUTO, any, PACKBUF_KEEP_PLAIN);
    t = array_of(sevens, i64(), 1, forty, NULL, 0);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "w", &t, NULL, NULL);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    tap_ok(packs(&trip) && storage(&trip, "w", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT && storage(&trip, "x", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "keep plain: a constant is stored");
    find(&trip, "x", &node);
    packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &buffer, NULL);
    tap_ok(packbuf_get_typed(&buffer, i64(), &typed, &error) == (bytes_big_endian() ? PACKBUF_NOT_STORED : buffer.offset % 8 || (uintptr_t)trip.data % 8 ? PACKBUF_UNALIGNED : PACKBUF_OK), "and can be read in place");
    mv_trip_end(&trip);
    t.data = counts;
    schema[0].path = "b";
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
    packbuf_add_tensor(&trip.batch, "b", &t, NULL, NULL);
    packbuf_add_tensor(&trip.batch, "c", &t, NULL, NULL);
    tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "b", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "c", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS,
           "keep plain: no alias of an earlier field, and others are");
    mv_trip_end(&trip);
    schema[0].path = "a";
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
    packbuf_add_tensor(&trip.batch, "b", &t, NULL, NULL);
    tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "b", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS, "a later field may be an alias of one that is kept plain (section 19)");
    mv_trip_end(&trip);

    schema[0] = schema_of("x", PACKBUF_CODEC_AUTO, any, PACKBUF_REFUSE_NULL);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, validity, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 10 && strcmp(error.path, "x") == 0, "refuse null: NOT_NULLABLE, row 10 of x");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    tap_ok(packs(&trip), "refuse null: without nulls it packs");
    mv_trip_end(&trip);
    for (int i = 0; i < 40; i++) texts[i] = text_of(i == 39 ? NULL : "text");
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_strings(&trip.batch, "x", texts, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 39, "refuse null: strings, row 39");
    mv_trip_end(&trip);
    memset(rows, 0, sizeof rows);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensors(&trip.batch, "x", rows, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 0, "refuse null: arrays that are all null, row 0");
    mv_trip_end(&trip);
    schema[0].path = "x.k[0].m";
    for (int i = 0; i < 40; i++) values[i] = *mv_column(i == 5 ? "{\"k\" [{}]}" : "{\"k\" [{\"m\" 1}]}", &count);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_values(&trip.batch, "x", values, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 5 && strcmp(error.path, "x.k[0].m") == 0, "refuse null: a nested cell that is missing, row 5 of x.k[0].m");
    mv_trip_end(&trip);
    schema[0] = schema_of("x.k[0].m", PACKBUF_CODEC_AUTO, i32(), 0);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_values(&trip.batch, "x", values, NULL);
    tap_ok(packs(&trip) && find(&trip, "x.k[0].m", &node) && node.dtype.bits == 32 && is(&trip, "x", 5, "{\"k\" [{}]}") && is(&trip, "x", 6, "{\"k\" [{\"m\" 1}]}"), "a nested path: int32");
    mv_trip_end(&trip);
    schema[0].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 8);
    values[7] = *mv_column("{\"k\" [{\"m\" 128}]}", &count);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_values(&trip.batch, "x", values, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE && error.row == 7, "128 as int8: UNENCODABLE, row 7");
    mv_trip_end(&trip);

    schema[0] = schema_of("x", PACKBUF_CODEC_AUTO, any, 0);
    schema[0].logical_type = 1;
    schema[0].parameter = "us";
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    tap_ok(packs(&trip) && find(&trip, "x", &node) && node.logical_type == 1 && mv_same_bytes(node.parameter.data, node.parameter.size, "us", 2) && is(&trip, "x", 6, "36"), "a timestamp in microseconds");
    mv_trip_end(&trip);
    schema[0].parameter = "\xff";
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_BAD_UTF8, "a parameter that is not UTF-8: BAD_UTF8");
    mv_trip_end(&trip);

    schema[0] = schema_of("x", PACKBUF_CODEC_UTF8_RAGGED, any, 0);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_bytes(&trip.batch, "x", texts, NULL);
    tap_ok(packs(&trip) && is(&trip, "x", 0, "\"text\"") && is(&trip, "x", 39, "null"), "bytes as strings");
    mv_trip_end(&trip);
    texts[3] = text_of("\xff");
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_bytes(&trip.batch, "x", texts, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_BAD_UTF8 && error.row == 3, "bytes as strings, not UTF-8: BAD_UTF8, row 3");
    mv_trip_end(&trip);
    schema[0].codec = PACKBUF_CODEC_BYTES_RAGGED;
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_strings(&trip.batch, "x", texts, NULL);
    tap_ok(packs(&trip) && is(&trip, "x", 3, "b\"\\xff\""), "strings as bytes");
    mv_trip_end(&trip);
    schema[0].codec = PACKBUF_CODEC_JSON_RAGGED;
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_strings(&trip.batch, "x", texts, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE && strcmp(error.path, "x") == 0, "strings as JSON: UNENCODABLE");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE, "an array as JSON: UNENCODABLE");
    mv_trip_end(&trip);
    schema[0] = schema_of("x", PACKBUF_CODEC_NDARRAY, i32(), 0);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE, "an int64 array as int32: UNENCODABLE");
    mv_trip_end(&trip);
    schema[0] = schema_of("x", PACKBUF_CODEC_MSGPACK_RAGGED, any, 0);
    for (int i = 0; i < 40; i++) values[i] = *mv_column("{\"k\" [{\"m\" 1}]}", &count);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_values(&trip.batch, "x", values, NULL);
    tap_ok(packs(&trip) && find(&trip, "x", &node) && node.codec == PACKBUF_CODEC_MSGPACK_RAGGED && is(&trip, "x", 0, "{\"k\" [{\"m\" 1}]}"), "a codec stops expansion");
    mv_trip_end(&trip);
    schema[0] = schema_of("x", PACKBUF_CODEC_UTF8_RAGGED, any, 0);
    for (int i = 0; i < 40; i++) values[i] = i == 17 ? packbuf_int(1) : packbuf_string("s");
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_values(&trip.batch, "x", values, NULL);
    tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE && error.row == 17, "a number in a column of strings: UNENCODABLE, row 17");
    mv_trip_end(&trip);
    schema[0] = schema_of("v", PACKBUF_CODEC_MSGPACK_RAGGED, any, 0);
    schema[0].batch_value = 1;
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "v", &t, NULL, NULL);
    packbuf_add_batch_value(&trip.batch, "v", &values[0], NULL);
    tap_ok(packs(&trip) && packbuf_find(&trip.view, 1, "v", &node, NULL) == PACKBUF_OK && node.codec == PACKBUF_CODEC_MSGPACK_RAGGED && find(&trip, "v", &node) && node.codec == PACKBUF_CODEC_NDARRAY,
           "a schema of a batch value leaves the field of that name alone");
    mv_trip_end(&trip);
    schema[0] = schema_of("absent", PACKBUF_CODEC_MSGPACK_RAGGED, any, 0);
    mv_trip_begin(&trip, 40, &options);
    packbuf_add_tensor(&trip.batch, "v", &t, NULL, NULL);
    tap_ok(packs(&trip), "a schema of a path that does not exist is no error");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- rows ---- */

static packbuf_status add_rows(mv_trip *trip, const char *notation)
{
    size_t rows;
    packbuf_value *values = mv_column(notation, &rows);
    mv_trip_begin(trip, rows, NULL);
    return packbuf_add_rows(&trip->batch, values, &trip->error);
}

static int row_is(mv_trip *trip, uint64_t row, const char *notation)
{
    size_t count;
    packbuf_value *want = mv_column(notation, &count), got;
    return packbuf_read_row(&trip->view, row, &trip->back, &got, &trip->error) == PACKBUF_OK && mv_same(want, &got);
}

static void test_rows(void)
{
    enum { KEYS = 300, ROWS = 20 };
    packbuf_value *wide = (packbuf_value *)mv_alloc(ROWS * sizeof *wide);
    packbuf_value *row;
    packbuf_node node;
    mv_trip trip;
    int good = 1;
    tap_ok(!add_rows(&trip, "{\"a\" 1 \"b\" \"x\"} {\"b\" \"y\" \"a\" 2} {} {\"c\" null \"a\" 3}") && packs(&trip), "rows with missing keys and other orders");
    tap_ok(row_is(&trip, 0, "{\"a\" 1 \"b\" \"x\"}") && row_is(&trip, 1, "{\"a\" 2 \"b\" \"y\"}") && row_is(&trip, 2, "{}") && row_is(&trip, 3, "{\"a\" 3 \"c\" null}"), "come back; null and missing are two things");
    tap_ok(trip.view.field_count == 3 && !packbuf_get_node(&trip.view, 0, &node, NULL) && node.name.data[0] == 'a' && !packbuf_get_node(&trip.view, 2, &node, NULL) && node.name.data[0] == 'c', "in first-seen order");
    tap_ok(is(&trip, "b", 2, "missing") && is(&trip, "c", 3, "null") && is(&trip, "c", 0, "missing"), "a cell says missing");
    mv_trip_end(&trip);
    tap_ok(add_rows(&trip, "{\"a\" 1} 5 {}") == PACKBUF_WRONG_TYPE && trip.error.row == 1, "a row that is no dict: WRONG_TYPE, row 1");
    mv_trip_end(&trip);
    tap_ok(add_rows(&trip, "{\"a\" 1} {} null") == PACKBUF_WRONG_TYPE && trip.error.row == 2, "a row that is null: WRONG_TYPE, row 2");
    mv_trip_end(&trip);
    tap_ok(add_rows(&trip, "{\"a\" 1} {1 2}") == PACKBUF_WRONG_TYPE && trip.error.row == 1, "a key that is no string: WRONG_TYPE, row 1");
    mv_trip_end(&trip);
    tap_ok(add_rows(&trip, "{\"a\" 1} {\"b\" 1 \"a\" 1 \"b\" 2}") == PACKBUF_DUPLICATE_NAME && trip.error.row == 1, "a key twice in a row: DUPLICATE_NAME, row 1");
    mv_trip_end(&trip);
    tap_ok(add_rows(&trip, "{\"a\" 1} {\"\\xff\" 1}") == PACKBUF_BAD_UTF8, "a key that is not UTF-8: BAD_UTF8");
    mv_trip_end(&trip);
    tap_ok(!add_rows(&trip, "{} {}") && packs(&trip) && trip.view.field_count == 0 && row_is(&trip, 1, "{}"), "rows without keys");
    mv_trip_end(&trip);
    for (size_t i = 0; i < ROWS; i++) { /* far more keys than a dict may have to expand; each row begins elsewhere and lacks some */
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
    tap_ok(!packbuf_add_rows(&trip.batch, wide, &trip.error) && packs(&trip) && trip.view.field_count == KEYS, "300 keys at the top");
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
        tap_ok(packbuf_measure(&trip.batch, &size, &trip.error) == PACKBUF_DUPLICATE_NAME, "a key that is the name of a field: DUPLICATE_NAME");
        mv_trip_end(&trip);
    }
    mv_free();
}

/* ---- few rows, few fields ---- */

static void test_small(void)
{
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
    tap_ok(packs(&trip) && trip.size == 128 && trip.view.rows == 5 && row_is(&trip, 4, "{}"), "5 rows, no fields: 128 bytes");
    mv_trip_end(&trip);
    memset(&r, 0, sizeof r);
    r.dtype = i32();
    r.offset_bits = 64;
    r.offsets = no_offsets;
    mv_trip_begin(&trip, 0, NULL);
    tap_ok(!packbuf_add_tensor(&trip.batch, "dense", &t, NULL, &trip.error) && !packbuf_add_ragged(&trip.batch, "ragged", &r, &trip.error) &&
               !packbuf_add_tensors(&trip.batch, "tensors", NULL, &trip.error) && !packbuf_add_strings(&trip.batch, "strings", NULL, &trip.error) &&
               !packbuf_add_bytes(&trip.batch, "bytes", NULL, &trip.error) && !packbuf_add_values(&trip.batch, "values", NULL, &trip.error) && !packbuf_add_rows(&trip.batch, NULL, &trip.error) &&
               !packbuf_add_batch_value(&trip.batch, "value", &value, &trip.error),
           "no rows: every way of adding takes no data");
    tap_ok(packs(&trip) && trip.view.field_count == 6 && trip.view.value_count == 1, "and packs");
    {
        packbuf_node node;
        tap_ok(find(&trip, "dense", &node) && node.rank == 2 && node.shape[0] == 4 && node.shape[1] == 2 && node.dtype.bits == 32, "the shape of a cell is kept");
        tap_ok(packbuf_read_cell(&trip.view, 0, 0, &trip.back, &value, &error) == PACKBUF_OUT_OF_RANGE, "there is no row 0: OUT_OF_RANGE");
    }
    mv_trip_end(&trip);
    tap_ok(!add_rows(&trip, "{\"id\" \"s1\" \"n\" 3 \"logp\" [0.5 0.25] \"t\" t.f32[2](1 2)}") && packs(&trip) && trip.size <= 1100 && row_is(&trip, 0, "{\"id\" \"s1\" \"n\" 3 \"logp\" [0.5 0.25] \"t\" t.f32[2](1 2)}"),
           "one row of four fields stays small: %u bytes, nothing outside the head", (unsigned)trip.size);
    tap_ok(trip.view.head_length == trip.view.total_length, "all inline");
    mv_trip_end(&trip);

    packbuf_arena_init(&arena, NULL);
    options.alignment_exponent = 5;
    tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT, "alignment 32: INVALID_ARGUMENT");
    options.alignment_exponent = 13;
    tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT, "alignment 8192: INVALID_ARGUMENT");
    options = packbuf_default_options();
    options.packing = 6;
    tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT, "a packing that there is not: INVALID_ARGUMENT");
    options = packbuf_default_options();
    options.data_checksums = 2;
    tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT, "checksums 2: INVALID_ARGUMENT");
    options = packbuf_default_options();
    options.schema_count = 1;
    tap_ok(packbuf_batch_init(&batch, 1, &arena, &options, &error) == PACKBUF_INVALID_ARGUMENT, "a count of schemas without schemas: INVALID_ARGUMENT");
    tap_ok(packbuf_batch_init(&batch, ((uint64_t)1 << 48) + 1, &arena, NULL, &error) == PACKBUF_LIMIT, "more than 2^48 rows: LIMIT");
    tap_ok(packbuf_batch_init(NULL, 1, &arena, NULL, &error) == PACKBUF_INVALID_ARGUMENT && packbuf_measure(NULL, &size, &error) == PACKBUF_INVALID_ARGUMENT, "no batch: INVALID_ARGUMENT");
    packbuf_arena_free(&arena);
    mv_free();
}

/* ---- how buffers are stored ---- */

static void test_storage(void)
{
    enum { N = 1000 };
    int64_t *squares = (int64_t *)mv_alloc(N * 8), *ascending = (int64_t *)mv_alloc(N * 8), *nearly = (int64_t *)mv_alloc(N * 8), *scattered = (int64_t *)mv_alloc(N * 24);
    int32_t *offsets = (int32_t *)mv_alloc((N + 1) * 4);
    uint64_t n[2] = {N, 1}, two[1] = {2}, three[1] = {3};
    int64_t stride[1] = {24}, reverse[1] = {-8};
    float zeros[2] = {0.0f, -0.0f}, signs[N];
    packbuf_text same[N], empty[N];
    packbuf_value json[N], odd[N];
    packbuf_node node;
    packbuf_buffer a, b;
    packbuf_tensor t;
    packbuf_ragged r;
    mv_trip trip;
    for (int i = 0; i < N; i++) {
        squares[i] = scattered[3 * i] = (int64_t)i * i;
        nearly[i] = squares[i] + (i == N - 1);
        ascending[i] = 5 + 3 * i;
        offsets[i] = i;
        signs[i] = zeros[i == N - 1];
        same[i] = text_of("xx");
        empty[i] = text_of("");
        json[i] = packbuf_list(NULL, 0);
        odd[i] = i % 2 ? packbuf_int(1) : packbuf_string("x");
    }
    offsets[N] = N;
    memset(&r, 0, sizeof r);
    r.data = squares;
    r.dtype = i64();
    r.offset_bits = 32;
    r.offsets = offsets;
    r.items = N;
    mv_trip_begin(&trip, N, NULL);
    t = array_of(squares, i64(), 1, n, NULL, 0);
    packbuf_add_tensor(&trip.batch, "squares", &t, NULL, NULL);
    t = array_of(scattered, i64(), 1, n, stride, 0);
    packbuf_add_tensor(&trip.batch, "scattered", &t, NULL, NULL);
    t = array_of(squares + N - 1, i64(), 1, n, reverse, 0);
    packbuf_add_tensor(&trip.batch, "reverse", &t, NULL, NULL);
    t = array_of(squares, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64), 1, n, NULL, 0);
    packbuf_add_tensor(&trip.batch, "unsigned", &t, NULL, NULL);
    t = array_of(squares, i64(), 2, n, NULL, PACKBUF_FORM_TENSOR);
    packbuf_add_tensor(&trip.batch, "column", &t, NULL, NULL);
    t = array_of(nearly, i64(), 1, n, NULL, 0);
    packbuf_add_tensor(&trip.batch, "nearly", &t, NULL, NULL);
    t = array_of(ascending, i64(), 1, n, NULL, 0);
    packbuf_add_tensor(&trip.batch, "ascending", &t, NULL, NULL);
    t = array_of(signs, f32(), 1, n, NULL, 0);
    packbuf_add_tensor(&trip.batch, "signs", &t, NULL, NULL);
    packbuf_add_ragged(&trip.batch, "ragged", &r, NULL);
    packbuf_add_strings(&trip.batch, "same", same, NULL);
    packbuf_add_strings(&trip.batch, "empty", empty, NULL);
    packbuf_add_strings(&trip.batch, "again", same, NULL);
    packbuf_add_values(&trip.batch, "lists", json, NULL);
    packbuf_add_values(&trip.batch, "json", odd, NULL);
    packbuf_add_values(&trip.batch, "json again", odd, NULL);
    if (tap_ok(packs(&trip), "a batch of every storage")) {
        tap_ok(storage(&trip, "squares", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "numbers are stored");
        tap_ok(storage(&trip, "scattered", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS && storage(&trip, "column", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS && storage(&trip, "ragged", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS,
               "equal elements are an alias: strided, of another shape, of another codec");
        find(&trip, "squares", &node);
        packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &a, NULL);
        find(&trip, "scattered", &node);
        packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &b, NULL);
        tap_ok(a.offset == b.offset && a.length == b.length && b.alias_of == a.index && a.bytes == b.bytes, "an alias lies where the original does");
        tap_ok(storage(&trip, "reverse", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "unsigned", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "nearly", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "other order, other dtype, another last element: stored");
        tap_ok(storage(&trip, "ascending", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "data are never a sequence");
        tap_ok(storage(&trip, "signs", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "0.0 and -0.0 are no constant");
        tap_ok(storage(&trip, "ragged", PACKBUF_ROLE_OFFSETS) == PACKBUF_SEQUENCE, "offsets of rows of one length are a sequence");
        tap_ok(storage(&trip, "empty", PACKBUF_ROLE_OFFSETS) == PACKBUF_CONSTANT && storage(&trip, "empty", PACKBUF_ROLE_DATA) == PACKBUF_INLINE, "offsets of empty rows are a constant, no data are inline");
        tap_ok(storage(&trip, "same", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "again", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS && storage(&trip, "again", PACKBUF_ROLE_OFFSETS) == PACKBUF_SEQUENCE,
               "text is no constant, so that cells can be read in place, but may be an alias");
        tap_ok(storage(&trip, "json", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "json again", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "JSON is neither");
        tap_ok(storage(&trip, "lists", PACKBUF_ROLE_LENGTHS) == PACKBUF_CONSTANT, "lengths of empty lists are a constant");
        tap_ok(is(&trip, "same", N - 1, "\"xx\"") && is(&trip, "again", 0, "\"xx\"") && is(&trip, "empty", 9, "\"\"") && is(&trip, "ascending", 999, "3002") && is(&trip, "scattered", 999, "998001") && is(&trip, "lists", 7, "[]"), "all read alike");
    }
    mv_trip_end(&trip);

    mv_trip_begin(&trip, 2, NULL);
    t = array_of(squares, i64(), 1, two, NULL, 0);
    packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
    tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_INLINE, "16 bytes are inline");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 3, NULL);
    t = array_of(squares, i64(), 1, three, NULL, 0);
    packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
    tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "24 are not");
    mv_trip_end(&trip);
    {
        uint8_t bitmap[N / 8];
        memset(bitmap, 0, sizeof bitmap);
        mv_trip_begin(&trip, N, NULL);
        t = array_of(squares, i64(), 1, n, NULL, 0);
        packbuf_add_tensor(&trip.batch, "none", &t, bitmap, NULL);
        memset(bitmap, 0xff, sizeof bitmap);
        tap_ok(packs(&trip) == 1, "a validity that says all are there is no validity");
        mv_trip_end(&trip);
        mv_trip_begin(&trip, N, NULL);
        packbuf_add_tensor(&trip.batch, "all", &t, bitmap, NULL);
        tap_ok(packs(&trip) && storage(&trip, "all", PACKBUF_ROLE_VALIDITY) == 0, "it is left out");
        mv_trip_end(&trip);
        memset(bitmap, 0, sizeof bitmap);
        mv_trip_begin(&trip, N, NULL);
        packbuf_add_tensor(&trip.batch, "none", &t, bitmap, NULL);
        tap_ok(packs(&trip) && storage(&trip, "none", PACKBUF_ROLE_VALIDITY) == PACKBUF_CONSTANT && storage(&trip, "none", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT && is(&trip, "none", 999, "null"), "all null: two constants");
        mv_trip_end(&trip);
    }
    mv_free();
}

static int all_zero(const uint8_t *bytes, uint64_t from, uint64_t to)
{
    for (; from < to; from++)
        if (bytes[from]) return 0;
    return 1;
}

static void test_options(void)
{
    enum { N = 20000 };
    packbuf_options options = packbuf_default_options();
    int64_t *squares = (int64_t *)mv_alloc(N * 8);
    uint64_t n[1] = {N}, sizes[2];
    packbuf_tensor t = array_of(squares, i64(), 1, n, NULL, 0);
    packbuf_text *texts = (packbuf_text *)mv_alloc(N * sizeof *texts);
    mv_trip trip;
    for (int i = 0; i < N; i++) {
        squares[i] = (int64_t)i * i;
        texts[i] = text_of(i % 3 ? "a" : "bcd");
    }
    for (unsigned exponent = 6; exponent <= 12; exponent++) {
        uint64_t end = 0;
        int good = 1;
        options.alignment_exponent = (uint8_t)exponent;
        mv_trip_begin(&trip, N, &options);
        packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
        packbuf_add_strings(&trip.batch, "s", texts, NULL);
        good = packs(&trip);
        for (uint32_t i = 0; i < trip.view.buffer_count && good; i++) {
            packbuf_buffer b;
            packbuf_get_buffer_at(&trip.view, i, &b, NULL);
            if (b.storage != PACKBUF_STORED) continue;
            good = b.offset % ((uint64_t)1 << exponent) == 0;
            if (b.role == PACKBUF_ROLE_DATA) {
                good = good && b.offset >= end;
                end = b.offset + b.length;
            }
        }
        tap_ok(good && trip.view.alignment_exponent == exponent && trip.size % ((uint64_t)1 << exponent) == 0 && all_zero(trip.data, end, trip.size) && is(&trip, "x", 999, "998001"), "alignment %u", 1u << exponent);
        mv_trip_end(&trip);
    }
    options = packbuf_default_options();
    for (unsigned checksums = 0; checksums < 2; checksums++) {
        options.data_checksums = (uint8_t)checksums;
        mv_trip_begin(&trip, N, &options);
        packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
        packbuf_add_strings(&trip.batch, "s", texts, NULL);
        tap_ok(packs(&trip) && (trip.view.optional_features & 1) == checksums && is(&trip, "s", 19998, "\"bcd\""), checksums ? "with data checksums" : "without data checksums");
        sizes[checksums] = trip.size;
        if (trip.size > 20000) {
            trip.data[trip.size - 20000] ^= 1;
            tap_ok(packbuf_verify(&trip.view, PACKBUF_LEVEL_FULL, &trip.error) == (checksums ? PACKBUF_DATA_CHECKSUM : PACKBUF_OK), checksums ? "a wrong bit is found" : "a wrong bit is not found");
        }
        mv_trip_end(&trip);
    }
    tap_ok(sizes[1] - sizes[0] == 64, "checksums of %d bytes of data take %d bytes", N * 8 + N * 5 / 3, (int)(sizes[1] - sizes[0]));
    options = packbuf_default_options();
    for (unsigned i = 0; i < 16; i++) options.row_order_token[i] = (uint8_t)(i + 1);
    mv_trip_begin(&trip, N, &options);
    tap_ok(packs(&trip) && memcmp(trip.view.row_order_token, options.row_order_token, 16) == 0, "the row-order token");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- a batch of everything, for what follows ---- */

enum { ROWS = 70 };

typedef struct everything {
    double dense[ROWS * 3];
    float constant[ROWS];
    int32_t items[ROWS * 8], offsets[ROWS + 1];
    char words[ROWS][24];
    packbuf_text texts[ROWS];
    packbuf_value nested[ROWS], mixed[ROWS], blobs[ROWS], lists[ROWS], value;
    uint64_t shape[2];
    packbuf_tensor dense_of, constant_of, strided_of, rows[ROWS];
    uint64_t row_shapes[ROWS][2];
    int64_t strides[2];
    packbuf_ragged ragged;
} everything;

static everything *make_everything(void)
{
    static const char *const media[] = {"m\"image/png:abcdefghijklmnopqrstuvwxyz\"", "m\":raw\"", "null"};
    everything *e = (everything *)mv_alloc(sizeof *e);
    size_t count;
    memset(e, 0, sizeof *e);
    for (unsigned i = 0; i < ROWS; i++) {
        char line[200];
        for (unsigned k = 0; k < 3; k++) e->dense[i * 3 + k] = (double)i * k + 0.25;
        e->constant[i] = 1.5f;
        e->offsets[i + 1] = e->offsets[i] + (int32_t)mv_below(8);
        for (unsigned k = 0; k < 8; k++) e->items[i * 8 + k] = (int32_t)mv_random();
        snprintf(e->words[i], sizeof e->words[i], "word %u%s", i * 7919 % 101, i % 2 ? " and more" : "");
        e->texts[i] = text_of(i % 11 == 3 ? NULL : e->words[i]);
        snprintf(line, sizeof line, i % 9 == 4 ? "null" : "{\"step\" %u \"tool\" {\"name\" \"t%u\" \"args\" [1 \"x\" %u]} \"ids\" [%u %u] \"calls\" [{\"a\" %u} null]}", i, i % 3, i * i, i, i + 1, i * 31);
        e->nested[i] = *mv_column(line, &count);
        snprintf(line, sizeof line, i % 2 ? "[%u b\"bytes\" \"%u\"]" : "{%u \"int key\"}", i * 1000, i);
        e->mixed[i] = *mv_column(line, &count);
        e->blobs[i] = *mv_column(media[i % 3], &count);
        snprintf(line, sizeof line, "[m\"image/jpeg:%u\" b\"%u\"]*1", i * 77, i);
        e->lists[i] = *mv_column(line, &count);
        e->row_shapes[i][0] = i % 4;
        e->row_shapes[i][1] = 2;
        e->rows[i] = array_of(e->items + i, i32(), i % 3 ? 2 : 1, e->row_shapes[i], NULL, PACKBUF_FORM_ARRAY);
    }
    e->value = *mv_column("{\"version\" 3 \"name\" \"tokenizer\" \"weights\" t.f32[5](1 2 3 4 5)}", &count);
    e->shape[0] = ROWS;
    e->shape[1] = 3;
    e->strides[0] = 8;
    e->strides[1] = 8 * ROWS;
    e->dense_of = array_of(e->dense, f64(), 2, e->shape, NULL, PACKBUF_FORM_TENSOR);
    e->strided_of = array_of(e->dense, f64(), 2, e->shape, e->strides, PACKBUF_FORM_TENSOR);
    e->constant_of = array_of(e->constant, f32(), 1, e->shape, NULL, 0);
    e->ragged.data = e->items;
    e->ragged.dtype = i32();
    e->ragged.form = PACKBUF_FORM_LIST;
    e->ragged.offset_bits = 32;
    e->ragged.offsets = e->offsets;
    e->ragged.items = ROWS * 8;
    return e;
}

static packbuf_status add_everything(packbuf_batch *batch, const everything *e, packbuf_error *error)
{
    packbuf_status s = packbuf_add_tensor(batch, "dense", &e->dense_of, NULL, error);
    if (!s) s = packbuf_add_tensor(batch, "again", &e->dense_of, NULL, error);
    if (!s) s = packbuf_add_tensor(batch, "strided", &e->strided_of, NULL, error);
    if (!s) s = packbuf_add_tensor(batch, "constant", &e->constant_of, NULL, error);
    if (!s) s = packbuf_add_ragged(batch, "ragged", &e->ragged, error);
    if (!s) s = packbuf_add_tensors(batch, "rows", e->rows, error);
    if (!s) s = packbuf_add_strings(batch, "strings", e->texts, error);
    if (!s) s = packbuf_add_bytes(batch, "bytes", e->texts, error);
    if (!s) s = packbuf_add_rows(batch, e->nested + 5, error); /* rows 5 and on: see test_failures */
    if (s == PACKBUF_WRONG_TYPE) s = PACKBUF_OK;               /* one of them is null: refused, and leaves nothing */
    if (!s) s = packbuf_add_values(batch, "nested", e->nested, error);
    if (!s) s = packbuf_add_values(batch, "mixed", e->mixed, error);
    if (!s) s = packbuf_add_values(batch, "blobs", e->blobs, error);
    if (!s) s = packbuf_add_values(batch, "lists", e->lists, error);
    if (!s) s = packbuf_add_batch_value(batch, "meta", &e->value, error);
    if (!s) s = packbuf_add_metadata(batch, NULL, "run", "42", error);
    if (!s) s = packbuf_add_metadata(batch, "nested.step", "unit", "1", error);
    return s;
}

/* ---- exact size, capacity, address, memory ---- */

static void test_exact(void)
{
    everything *e = make_everything();
    packbuf_error error;
    packbuf_arena arena;
    packbuf_batch again;
    mv_trip trip;
    uint64_t size = 0, twice = 0;
    uint8_t *space;
    int good = 1;
    mv_trip_begin(&trip, ROWS, NULL);
    tap_ok(!add_everything(&trip.batch, e, &trip.error) && packs(&trip), "a batch of everything: %u bytes", (unsigned)trip.size);
    space = (uint8_t *)malloc((size_t)trip.size + 256);
    for (uint64_t capacity = 0; capacity < trip.size && good; capacity += capacity + 200 < trip.size ? 1 + capacity / 8 : 1) {
        memset(space, 0xa5, (size_t)trip.size + 256);
        size = 0;
        good = packbuf_write(&trip.batch, space, capacity, &size, &error) == PACKBUF_CAPACITY && size == trip.size;
        for (uint64_t i = capacity; i < trip.size + 256 && good; i++) good = space[i] == 0xa5;
    }
    tap_ok(good, "too little capacity: CAPACITY, the size that is needed, no byte past the end");
    tap_ok(packbuf_write(&trip.batch, space, trip.size - 1, &size, &error) == PACKBUF_CAPACITY && size == trip.size && error.code == PACKBUF_CAPACITY, "one byte too little: CAPACITY");
    tap_ok(packbuf_write(&trip.batch, NULL, trip.size, &size, &error) == PACKBUF_INVALID_ARGUMENT, "no destination: INVALID_ARGUMENT");
    for (unsigned shift = 0; shift < 64; shift++) {
        memset(space, 0xa5, (size_t)trip.size + 256);
        if (packbuf_write(&trip.batch, space + shift, trip.size + (shift & 1), NULL, &error) || memcmp(space + shift, trip.data, (size_t)trip.size) != 0) good = 0;
        for (unsigned i = 0; i < shift; i++) good = good && space[i] == 0xa5;
        for (uint64_t i = shift + trip.size; i < trip.size + 256; i++) good = good && space[i] == 0xa5;
    }
    tap_ok(good, "any address: the same bytes, and none around them");
    for (unsigned shift = 1; shift < 8; shift++) {
        packbuf_view view;
        packbuf_value a, b;
        memmove(space + shift, trip.data, (size_t)trip.size);
        good = good && !packbuf_open(&view, space + shift, trip.size, PACKBUF_OPEN_EXACT, NULL, &error) && !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
        good = good && !packbuf_read_row(&view, 7, &trip.back, &a, &error) && !packbuf_read_row(&trip.view, 7, &trip.back, &b, &error) && mv_same(&a, &b);
    }
    tap_ok(good, "read at unaligned addresses: the same rows");
    packbuf_arena_init(&arena, NULL);
    good = !packbuf_batch_init(&again, ROWS, &arena, NULL, &error) && !add_everything(&again, e, &error) && !packbuf_measure(&again, &size, &error) && !packbuf_measure(&again, &twice, &error);
    tap_ok(good && size == twice && size == trip.size, "measured twice, and another batch of the same: the same size");
    tap_ok(!packbuf_write(&again, space, size, NULL, &error) && memcmp(space, trip.data, (size_t)size) == 0 && !packbuf_write(&again, space, size, NULL, &error) && memcmp(space, trip.data, (size_t)size) == 0, "written twice: the same bytes");
    {
        packbuf_value more = packbuf_int(1);
        packbuf_view view;
        tap_ok(!packbuf_add_batch_value(&again, "more", &more, &error) && !packbuf_measure(&again, &twice, &error) && twice > size, "adding after measuring: measured anew");
        space = (uint8_t *)realloc(space, (size_t)twice);
        tap_ok(!packbuf_write(&again, space, twice, &size, &error) && size == twice && !packbuf_open(&view, space, size, PACKBUF_OPEN_EXACT, NULL, &error) && !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) && view.value_count == 2,
               "and written anew");
    }
    free(space);
    packbuf_arena_free(&arena);
    mv_trip_end(&trip);
    mv_free();
}

static void test_bound(void)
{
    int good = 1;
    unsigned cases = 0;
    double worst = 0;
    for (; cases < 600 && good; cases++) {
        uint64_t fields = mv_below(5), rows = mv_below(40), rank_sum = 0, text = 0, bytes = 0, bound, size;
        char names[8][8];
        packbuf_error error;
        mv_trip trip;
        mv_trip_begin(&trip, rows, NULL);
        for (unsigned f = 0; f < fields; f++) {
            packbuf_dtype dtype = mv_dtype_at(mv_below(MV_DTYPES));
            uint64_t *shape = (uint64_t *)mv_alloc(8 * PACKBUF_MAX_RANK), count = 1;
            uint8_t *validity = (uint8_t *)mv_alloc(8);
            for (unsigned i = 0; i < 8; i++) validity[i] = (uint8_t)mv_random();
            text += (uint64_t)snprintf(names[f], sizeof names[f], "f%u", f);
            if (mv_below(3) == 0) {
                packbuf_tensor t;
                unsigned rank = 1 + mv_below(4);
                shape[0] = rows;
                for (unsigned d = 1; d < rank; d++) shape[d] = mv_below(5);
                for (unsigned d = 0; d < rank; d++) count *= shape[d];
                t = array_of(random_bytes((size_t)count * dtype.bits / 8, dtype), dtype, rank, shape, NULL, PACKBUF_FORM_NATURAL);
                good = good && !packbuf_add_tensor(&trip.batch, names[f], &t, mv_below(2) ? validity : NULL, &error);
                text += 8 * (rank - 1);
                bytes += count * dtype.bits / 8;
            } else if (mv_below(2)) {
                packbuf_ragged r;
                int64_t *offsets = (int64_t *)mv_alloc((size_t)(rows + 1) * 8);
                memset(&r, 0, sizeof r);
                for (uint64_t i = 0; i <= rows; i++) offsets[i] = i ? offsets[i - 1] + (int64_t)mv_below(5) : 0;
                r.item_rank = (uint8_t)mv_below(3);
                for (unsigned d = 0; d < r.item_rank; d++) count *= shape[d] = 1 + mv_below(3);
                r.item_shape = shape;
                r.items = (uint64_t)offsets[rows];
                r.data = random_bytes((size_t)(count * r.items) * dtype.bits / 8, dtype);
                r.dtype = dtype;
                r.offset_bits = 64;
                r.offsets = offsets;
                r.validity = mv_below(2) ? validity : NULL;
                good = good && !packbuf_add_ragged(&trip.batch, names[f], &r, &error);
                rank_sum += r.item_rank + 1u;
                bytes += count * r.items * dtype.bits / 8;
            } else {
                packbuf_text *texts = (packbuf_text *)mv_alloc((size_t)(rows + 1) * sizeof *texts);
                for (uint64_t i = 0; i < rows; i++) {
                    texts[i].data = mv_below(4) ? "abcdefghijklmnop" : NULL;
                    texts[i].size = texts[i].data ? mv_below(17) : 0;
                    bytes += texts[i].size;
                }
                good = good && !(mv_below(2) ? packbuf_add_strings : packbuf_add_bytes)(&trip.batch, names[f], texts, &error);
            }
            if (mv_below(3) == 0) {
                packbuf_add_metadata(&trip.batch, names[f], "key", "text", NULL);
                text += 7 + 32;
            }
        }
        bound = packbuf_bound(fields, rank_sum, rows, text, bytes);
        good = good && bound == PACKBUF_BOUND(fields, rank_sum, rows, text, bytes) && !packbuf_measure(&trip.batch, &size, &trip.error) && size <= bound;
        if (good && size && (double)size / (double)bound > worst) worst = (double)size / (double)bound;
        if (!good) tap_note("%u fields, %u rows, rank sum %u, text %u, bytes %u: bound %u, size %u", (unsigned)fields, (unsigned)rows, (unsigned)rank_sum, (unsigned)text, (unsigned)bytes, (unsigned)bound, (unsigned)size);
        mv_trip_end(&trip);
        mv_free();
    }
    tap_ok(good, "the closed form bounds the size of %u random batches (at most %.0f %% of it), macro and function agree", cases, worst * 100);
    tap_ok(packbuf_bound(UINT64_MAX, 1, 1, 1, 1) == UINT64_MAX && packbuf_bound(1, 1, UINT64_MAX, 1, 1) == UINT64_MAX && packbuf_bound(1, 1, 1, 1, UINT64_MAX) == UINT64_MAX &&
               packbuf_bound(1, UINT64_MAX, 1, 1, 1) == UINT64_MAX && packbuf_bound(1, 1, 1, UINT64_MAX, 1) == UINT64_MAX && packbuf_bound(1 << 20, 1 << 20, (uint64_t)1 << 34, 0, 0) >= ((uint64_t)1 << 54),
           "it saturates");
    {
        char space[PACKBUF_BOUND(1, 0, 10, 1, 80)]; /* a constant expression */
        int64_t numbers[10] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
        uint64_t ten[1] = {10};
        packbuf_tensor t = array_of(numbers, i64(), 1, ten, NULL, 0);
        mv_trip trip;
        mv_trip_begin(&trip, 10, NULL);
        packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
        tap_ok(packbuf_write(&trip.batch, space, sizeof space, NULL, &trip.error) == PACKBUF_OK, "the macro sizes an array");
        mv_trip_end(&trip);
    }
}

/* An allocator that keeps books: sizes given back must be those taken, and the failing call fails. */
typedef struct books {
    uint64_t calls, fail_at, live, blocks;
    int wrong;
} books;

static void *keep_books(void *context, void *memory, size_t old_size, size_t new_size)
{
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

static void test_failures(void)
{
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
        good = done || (s == PACKBUF_OUT_OF_MEMORY && error.code == s);
        packbuf_arena_free(&arena);
        packbuf_arena_free(&back);
        good = good && b.live == 0 && b.blocks == 0 && !b.wrong;
        if (!good) tap_note("allocation %u: %s, %s, live %u in %u blocks, wrong %d", (unsigned)i, packbuf_status_name(s), mv_error(&error), (unsigned)b.live, (unsigned)b.blocks, b.wrong);
    }
    tap_ok(good && done, "the first %u allocations fail one by one: OUT_OF_MEMORY each time, nothing leaks, sizes are given back as they were taken", (unsigned)(i - 1));

    /* a fixed arena: every size fails with OUT_OF_MEMORY, until it is enough; allocation failures then can be anywhere, not only between blocks */
    {
        uint64_t room = (uint64_t)4 << 20;
        uint8_t *memory = (uint8_t *)malloc((size_t)room);
        packbuf_arena_init_fixed(&arena, memory, (size_t)room);
        good = !packbuf_batch_init(&batch, ROWS, &arena, NULL, &error) && !add_everything(&batch, e, &error) && !packbuf_pack(&batch, &data, &size, &error);
        fixed = arena.used;
        tap_ok(good && (uint8_t *)data >= memory && (uint8_t *)data + size <= memory + room && (uintptr_t)data % 64 == 0 && !packbuf_open(&view, data, size, PACKBUF_OPEN_EXACT, NULL, &error) && !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error),
               "packbuf_pack in a fixed arena, without an allocator: %u bytes of it for %u packed", (unsigned)fixed, (unsigned)size);
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

/* ---- sources that change ---- */

enum { CHANGES = 12 };
static const char *const change_names[CHANGES] = {"a dense array", "a constant array", "a text gets longer", "a text gets shorter", "a list gets shorter", "a number in a JSON cell",
    "offsets move on", "offsets go back", "an array's shape grows", "a media's size", "a validity bitmap", "all at once"};

static void change(everything *e, uint8_t *validity, packbuf_value *items, unsigned which)
{
    switch (which) {
    case 0: for (unsigned i = 0; i < ROWS * 3; i++) e->dense[i] += 1; break;
    case 1: e->constant[ROWS / 2] = 2; break;
    case 2: e->texts[1].data = "a text of many more bytes than it had when it was measured, far more than the padding takes"; e->texts[1].size = 80; break;
    case 3: e->texts[2].size = 1; break;
    case 4: e->lists[3].as.list.count = 1; break;
    case 5: items[2].as.i = 123456789012345; break;
    case 6: for (unsigned i = ROWS / 2; i <= ROWS; i++) e->offsets[i] += 2; break;
    case 7: e->offsets[ROWS] = 0; break;
    case 8: e->row_shapes[4][0] = 60; break;
    case 9: ((packbuf_media *)(uintptr_t)e->blobs[0].as.media)->size = 3; break;
    case 10: validity[0] = 0x55; break;
    default:
        for (unsigned i = 0; i < 11; i++) change(e, validity, items, i);
    }
}

static void test_changes(void)
{
    for (unsigned which = 0; which < CHANGES; which++) {
        everything *e = make_everything();
        packbuf_value items[ROWS], json[ROWS];
        uint8_t validity[9], *space;
        packbuf_status s;
        packbuf_view view;
        mv_trip trip;
        uint64_t size = 0, at;
        int good;
        memset(validity, 0xfe, sizeof validity);
        for (unsigned i = 0; i < ROWS; i++) {
            items[i] = packbuf_int(i);
            json[i] = packbuf_list(items, i % 2 ? 3 : 0);
            if (i % 5 == 0) json[i] = packbuf_string("json");
        }
        mv_trip_begin(&trip, ROWS, NULL);
        good = !add_everything(&trip.batch, e, &trip.error) && !packbuf_add_values(&trip.batch, "json", json, &trip.error) && !packbuf_add_tensor(&trip.batch, "masked", &e->dense_of, validity, &trip.error) &&
               !packbuf_measure(&trip.batch, &size, &trip.error);
        change(e, validity, items, which);
        space = (uint8_t *)malloc((size_t)size + 64);
        memset(space, 0xa5, (size_t)size + 64);
        s = packbuf_write(&trip.batch, space, size, NULL, &trip.error);
        for (at = size; at < size + 64; at++) good = good && space[at] == 0xa5;
        if (s == PACKBUF_OK) good = good && !packbuf_open(&view, space, size, PACKBUF_OPEN_EXACT, NULL, &trip.error);
        else good = good && s == PACKBUF_INVALID_ARGUMENT;
        free(space);
        space = (uint8_t *)malloc((size_t)size); /* and where the sanitizer sees a byte too many */
        good = good && packbuf_write(&trip.batch, space, size, NULL, &trip.error) == s;
        tap_ok(good, "%s changes after measuring: %s, no byte past the end", change_names[which], s ? "refused" : "harmless");
        free(space);
        mv_trip_end(&trip);
        mv_free();
    }
}

/* The last buffer grows by far more than the padding behind it. */
enum { TEXT_GROWS, LIST_GROWS, ARRAY_GROWS, ITEM_GROWS, JSON_GROWS, MSGPACK_GROWS, OFFSETS_GROW, GROWTHS };
static const char *const growth_names[GROWTHS] = {"a text", "a list of numbers", "an array", "an item of a media list", "a JSON cell", "a MessagePack cell", "an offset"};

static void test_growth(void)
{
    enum { N = 20, LONG = 3000 };
    static char letters[LONG];
    static int32_t numbers[LONG];
    memset(letters, 'x', sizeof letters);
    for (unsigned which = 0; which < GROWTHS; which++) {
        packbuf_text texts[N];
        packbuf_tensor rows[N];
        packbuf_value cells[N], items[N * 2], *many = (packbuf_value *)mv_alloc(LONG * sizeof *many);
        uint64_t shapes[N], size = 0;
        int32_t offsets[N + 1] = {0};
        packbuf_ragged r;
        packbuf_status s = PACKBUF_OK;
        uint8_t *space;
        mv_trip trip;
        int good = 1;
        memset(&r, 0, sizeof r);
        for (unsigned i = 0; i < LONG; i++) {
            many[i] = packbuf_int(i);
            numbers[i] = (int32_t)(i * i); /* else they were a constant */
        }
        for (unsigned i = 0; i < N; i++) {
            texts[i].data = letters;
            texts[i].size = 3 + i % 2;
            shapes[i] = 3 + i % 2;
            rows[i] = array_of(numbers, i32(), 1, shapes + i, NULL, 0);
            offsets[i + 1] = offsets[i] + 3 + (int32_t)(i % 2);
            items[2 * i] = which == MSGPACK_GROWS || which == ITEM_GROWS ? packbuf_bytes(letters, 3) : packbuf_string("abc");
            items[2 * i + 1] = which == ITEM_GROWS ? packbuf_bytes(letters, 4) : packbuf_int(1);
            cells[i] = which == LIST_GROWS ? packbuf_list(many, 3 + i % 2) : packbuf_list(items + 2 * i, 2);
        }
        r.data = numbers;
        r.dtype = i32();
        r.offset_bits = 32;
        r.offsets = offsets;
        r.items = LONG;
        mv_trip_begin(&trip, N, NULL);
        if (which == TEXT_GROWS) s = packbuf_add_strings(&trip.batch, "x", texts, &trip.error);
        else if (which == ARRAY_GROWS) s = packbuf_add_tensors(&trip.batch, "x", rows, &trip.error);
        else if (which == OFFSETS_GROW) s = packbuf_add_ragged(&trip.batch, "x", &r, &trip.error);
        else s = packbuf_add_values(&trip.batch, "x", cells, &trip.error);
        if (!s) s = packbuf_measure(&trip.batch, &size, &trip.error);
        good = s == PACKBUF_OK;
        texts[N - 1].size = LONG;
        shapes[N - 1] = LONG;
        offsets[N] = LONG;
        if (which == LIST_GROWS) cells[N - 1].as.list.count = LONG;
        else items[2 * N - 2].as.text.data = letters, items[2 * N - 2].as.text.size = LONG;
        space = (uint8_t *)malloc((size_t)size + 2 * LONG * 8);
        memset(space, 0xa5, (size_t)size + 2 * LONG * 8);
        s = packbuf_write(&trip.batch, space, size, NULL, &trip.error);
        good = good && s == PACKBUF_INVALID_ARGUMENT && strcmp(trip.error.path, "x") == 0;
        for (uint64_t at = size; at < size + 2 * LONG * 8; at++) good = good && space[at] == 0xa5;
        tap_ok(good, "%s at the end grows after measuring: refused, no byte past the end", growth_names[which]);
        free(space);
        mv_trip_end(&trip);
        mv_free();
    }
}

/* ---- memory of a device ---- */

/* Device addresses are host addresses moved so far that using one would fault. */
#define FAR_AWAY ((uintptr_t)1 << (sizeof(uintptr_t) > 4 ? 55 : 31))

typedef struct fake {
    unsigned copies, fail_at;
    uint64_t bytes;
} fake;

static packbuf_status fake_copy(void *context, void *dst, const void *src, size_t size)
{
    fake *f = (fake *)context;
    if (f->copies++ == f->fail_at) return PACKBUF_READ_ONLY;
    memcpy(dst, (const void *)((uintptr_t)src - FAR_AWAY), size);
    f->bytes += size;
    return PACKBUF_OK;
}

static void test_device(void)
{
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
                rows[i] = array_of((const void *)((uintptr_t)data + 4 * i), f32(), 1 + i % 2, row_shape, i % 2 ? strides : NULL, PACKBUF_FORM_TENSOR);
                rows[i].device = d;
            }
            cells_of[i] = array_of((const void *)((uintptr_t)data + 4 * i), f32(), 0, NULL, NULL, PACKBUF_FORM_SCALAR);
            cells_of[i].device = d;
            cells[i] = packbuf_tensor_value(&cells_of[i]);
        }
        good = good && !packbuf_add_tensor(&t->batch, "plain", &plain, NULL, &t->error) && !packbuf_add_tensor(&t->batch, "strided", &strided, NULL, &t->error) &&
               !packbuf_add_tensor(&t->batch, "masked", &plain, validity, &t->error) && !packbuf_add_ragged(&t->batch, "ragged", &r, &t->error);
        r.lengths = lengths;
        r.validity = validity;
        r.item_stride = 4;
        good = good && !packbuf_add_ragged(&t->batch, "holes", &r, &t->error) && !packbuf_add_tensors(&t->batch, "rows", rows, &t->error) && !packbuf_add_values(&t->batch, "scalars", cells, &t->error);
        {
            packbuf_value value = packbuf_tensor_value(&small);
            good = good && !packbuf_add_batch_value(&t->batch, "inline", &value, &t->error);
        }
        good = packs(t) && good;
    }
    tap_ok(good && f.copies > 5, "arrays of a device, which only its hook can read: %u copies of %u bytes", f.copies, (unsigned)f.bytes);
    copies = f.copies;
    for (i = 0; i < N && good; i++) {
        packbuf_value a, b;
        good = !packbuf_read_row(&trip.view, i, &trip.back, &a, &trip.error) && !packbuf_read_row(&host.view, i, &host.back, &b, &host.error) && mv_same(&a, &b);
    }
    {
        packbuf_value a, b;
        good = good && !packbuf_read_batch_values(&trip.view, &trip.back, &a, &trip.error) && !packbuf_read_batch_values(&host.view, &host.back, &b, &host.error) && mv_same(&a, &b);
    }
    tap_ok(good, "they read as the same arrays in host memory do");
    tap_ok(storage(&trip, "plain", PACKBUF_ROLE_DATA) == PACKBUF_STORED && storage(&trip, "masked", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "their content is not looked at: no alias");
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
    tap_ok(packbuf_add_tensor(&trip.batch, "x", &plain, NULL, &error) == PACKBUF_UNSUPPORTED_DEVICE && packbuf_add_ragged(&trip.batch, "x", &r, &error) == PACKBUF_UNSUPPORTED_DEVICE &&
               packbuf_add_tensors(&trip.batch, "x", rows, &error) == PACKBUF_UNSUPPORTED_DEVICE && error.row == 0,
           "a device without a hook: UNSUPPORTED_DEVICE");
    packbuf_add_values(&trip.batch, "x", cells, NULL);
    tap_ok(packbuf_measure(&trip.batch, &trip.size, &error) == PACKBUF_UNSUPPORTED_DEVICE && error.row == 0, "also of a value: UNSUPPORTED_DEVICE, row 0");
    mv_trip_end(&trip);
    mv_free();
}

/* ---- long runs: 64 KiB checksums and non-temporal stores across every kind of run ---- */

static void test_long(void)
{
    size_t rows = 3, bytes[3] = {((size_t)17 << 20) + 13, 65536 - 5, 100001};
    packbuf_text texts[3];
    uint64_t shape[2] = {3, 0};
    packbuf_tensor t;
    mv_trip trip;
    uint8_t *blob = (uint8_t *)mv_alloc(bytes[0]);
    int good;
    for (size_t i = 0; i < bytes[0]; i++) blob[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t i = 0; i < rows; i++) {
        texts[i].data = (const char *)blob + i;
        texts[i].size = bytes[i];
    }
    shape[1] = 30000;
    t = array_of(blob + 1, u8(), 2, shape, NULL, PACKBUF_FORM_TENSOR);
    for (unsigned checksums = 0; checksums < 2; checksums++) {
        packbuf_options options = packbuf_default_options();
        options.data_checksums = (uint8_t)checksums;
        mv_trip_begin(&trip, rows, &options);
        good = !packbuf_add_bytes(&trip.batch, "b", texts, &trip.error) && !packbuf_add_tensor(&trip.batch, "t", &t, NULL, &trip.error) && packs(&trip);
        for (size_t i = 0; i < rows && good; i++) {
            packbuf_value got = cell(&trip, "b", i), want = packbuf_bytes(texts[i].data, texts[i].size);
            good = mv_same(&got, &want);
        }
        good = good && memcmp(cell(&trip, "t", 2).as.tensor->data, blob + 60001, 30000) == 0;
        tap_ok(good, "17 MiB in unaligned runs, %s checksums", checksums ? "with" : "without");
        if (checksums && good) { /* a bit anywhere is found */
            unsigned found = 0;
            for (unsigned i = 0; i < 20; i++) {
                uint64_t at = trip.view.head_length + trip.view.index_length + mv_random() % (trip.size - trip.view.head_length - trip.view.index_length);
                trip.data[at] ^= 4;
                found += packbuf_verify(&trip.view, PACKBUF_LEVEL_FULL, &trip.error) == PACKBUF_DATA_CHECKSUM;
                trip.data[at] ^= 4;
            }
            tap_ok(found == 20, "20 flipped bits in the data are found");
        }
        mv_trip_end(&trip);
    }
    mv_free();
}

/* ---- bools that are none ---- */

static packbuf_status pack_bools(mv_trip *trip, const uint8_t *bools, uint64_t rows, uint64_t each, const packbuf_device *device)
{
    uint64_t shape[2];
    packbuf_tensor t;
    packbuf_status status;
    shape[0] = rows;
    shape[1] = each;
    t = array_of((const void *)((uintptr_t)bools + (device ? FAR_AWAY : 0)), packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), 2, shape, NULL, PACKBUF_FORM_ARRAY);
    t.device = device;
    mv_trip_begin(trip, rows, NULL);
    status = packbuf_add_tensor(&trip->batch, "b", &t, NULL, &trip->error);
    return status ? status : mv_trip_pack(trip);
}

static void test_bools(void)
{
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
        tap_ok(pack_bools(&trip, bools, 1000, 300, on_device ? &device : NULL) == PACKBUF_BAD_BOOL && trip.error.row == 570 && strcmp(trip.error.path, "b") == 0, "a bool byte of 2%s: BAD_BOOL, row 570 of b",
               on_device ? " on a device" : "");
        mv_trip_end(&trip);
        bools[171234] = 1;
        bools[13] = 255;
        tap_ok(pack_bools(&trip, bools, 8, 2, on_device ? &device : NULL) == PACKBUF_BAD_BOOL && trip.error.row == 6, "an inline bool byte of 255: BAD_BOOL, row 6");
        mv_trip_end(&trip);
        bools[13] = 0;
    }
    memset(bools, 7, N);
    tap_ok(pack_bools(&trip, bools, 1000, 300, NULL) == PACKBUF_BAD_BOOL && trip.error.row == 0, "a constant bool byte of 7: BAD_BOOL");
    mv_trip_end(&trip);
    {
        uint64_t shapes[3] = {3, 40, 9};
        packbuf_tensor rows[3];
        memset(bools, 0, 100);
        bools[45] = 9; /* row 2, element 5 */
        bools[1] = 1;
        for (unsigned i = 0; i < 3; i++) rows[i] = array_of(bools + (i == 2 ? 40 : 0), packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), 1, shapes + i, NULL, 0);
        mv_trip_begin(&trip, 3, NULL);
        tap_ok(!packbuf_add_tensors(&trip.batch, "b", rows, &trip.error) && mv_trip_pack(&trip) == PACKBUF_BAD_BOOL && trip.error.row == 2, "in one array a row: BAD_BOOL, row 2");
        mv_trip_end(&trip);
    }
    mv_free();
}

/* ---- what no caller should hand over, and what is far larger than it looks ---- */

/* Measures `rows` cells as field "f": the status; error->row and path say where. */
static packbuf_status refuses(const packbuf_value *cells, uint64_t rows, packbuf_error *error)
{
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
static void refused(packbuf_value value, const char *what)
{
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

static void test_nowhere(void)
{
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
    tap_ok(packbuf_add_rows(&trip.batch, rows, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1, "a row without its entries: INVALID_ARGUMENT, row 1");
    entry.key = packbuf_string_n(NULL, 2);
    entry.value = packbuf_int(1);
    rows[1] = packbuf_dict(&entry, 1);
    tap_ok(packbuf_add_rows(&trip.batch, rows, &error) == PACKBUF_INVALID_ARGUMENT && error.row == 1, "a row's key without data: INVALID_ARGUMENT, row 1");
    mv_trip_end(&trip);
    memset(&schema, 0, sizeof schema);
    schema.path = "f";
    schema.dtype = i64();
    options.schemas = &schema;
    options.schema_count = 1;
    rows[0] = packbuf_tensor_value(NULL);
    mv_trip_begin(&trip, 1, &options);
    tap_ok(!packbuf_add_values(&trip.batch, "f", rows, &trip.error) && mv_trip_pack(&trip) == PACKBUF_INVALID_ARGUMENT && trip.error.row == 0, "a schema's dtype over a tensor that is NULL");
    mv_trip_end(&trip);
}

static void test_keys(void)
{
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
    tap_ok(refuses(cells, 3, &error) == PACKBUF_UNENCODABLE && error.row == 2 && strcmp(error.path, "f") == 0, "keys that nothing holds: UNENCODABLE, row 2 of f");
}

static void test_vast(void)
{
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
    tap_ok(refuses(&row, 1, &error) == PACKBUF_LIMIT && error.row == 0 && strcmp(error.path, "f") == 0, "four arrays of 2^62 bytes in a cell: LIMIT, not 0 bytes");
    row = packbuf_list(items + 3, 2);
    vast[0] = (uint64_t)1 << 30;
    tap_ok(refuses(&row, 1, &error) == PACKBUF_LIMIT, "an array of 2^30 bytes in a cell: LIMIT");
    levels[0][0] = packbuf_bytes(&one, (size_t)1 << 28); /* no more than its size is looked at */
    levels[0][1] = packbuf_int(1);
    for (unsigned i = 1; i < 22; i++) levels[i][0] = levels[i][1] = packbuf_list(levels[i - 1], 2);
    entry.key = packbuf_int(1);
    entry.value = levels[21][0];
    row = packbuf_dict(&entry, 1);
    tap_ok(refuses(&row, 1, &error) == PACKBUF_LIMIT && error.row == 0, "a list shared by lists, 2^20 times in all: LIMIT");
    memset(&r, 0, sizeof r);
    r.data = &one;
    r.dtype = u8();
    r.item_rank = 1;
    r.item_shape = item;
    r.offset_bits = 64;
    r.items = (uint64_t)1 << 47;
    r.offsets = offsets;
    mv_trip_begin(&trip, 1, NULL);
    tap_ok(packbuf_add_ragged(&trip.batch, "f", &r, &error) == PACKBUF_INVALID_ARGUMENT && strcmp(error.path, "f") == 0, "2^47 items of 2^40 bytes: INVALID_ARGUMENT");
    r.item_rank = 0;
    r.items = (uint64_t)1 << 62;
    tap_ok(packbuf_add_ragged(&trip.batch, "f", &r, &error) == PACKBUF_INVALID_ARGUMENT, "2^62 items of a byte: INVALID_ARGUMENT");
    r.items = ((uint64_t)1 << 62) - 1;
    tap_ok(packbuf_add_ragged(&trip.batch, "f", &r, &error) == PACKBUF_OK, "one less is taken");
    mv_trip_end(&trip);
    t = array_of(&one, u8(), 2, wide, still, 0);
    mv_trip_begin(&trip, wide[0], NULL);
    tap_ok(!packbuf_add_tensor(&trip.batch, "f", &t, NULL, &error) && packs(&trip) && storage(&trip, "f", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT, "an array that repeats one byte 2^33 x 3 times is a constant");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, 0, NULL);
    packbuf_add_metadata(&trip.batch, NULL, "k", text, NULL);
    tap_ok(!packbuf_measure(&trip.batch, &size, &error), "a text that grows after it was added");
    memset(text, 'x', sizeof text - 1);
    tap_ok(packs(&trip) && trip.size == size && metadata_is(&trip, 0, "", "k", "x"), "is cut at the size it had");
    mv_trip_end(&trip);
}

/* Broadcast dimensions: constant exactly when all that they repeat is. */
static void test_broadcast(void)
{
    static const uint8_t bytes[6] = {7, 7, 7, 7, 7, 8};
    int64_t strides[3] = {0, 1, 0};
    uint64_t shape[3] = {100, 5, 40};
    packbuf_tensor t = array_of(bytes, u8(), 3, shape, strides, 0);
    packbuf_options options = packbuf_default_options();
    mv_trip trip;
    options.row_sharing = 0;
    mv_trip_begin(&trip, 100, &options);
    packbuf_add_tensor(&trip.batch, "same", &t, NULL, NULL);
    t.data = bytes + 1;
    packbuf_add_tensor(&trip.batch, "last differs", &t, NULL, NULL);
    tap_ok(packs(&trip) && storage(&trip, "same", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT && storage(&trip, "last differs", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "dimensions of stride 0 are looked at once, the others all");
    mv_trip_end(&trip);
}

/* Of many buffers whose first bytes are equal, the first with all bytes equal is the one that is stored. */
static void test_many_alike(void)
{
    enum { FIELDS = 600, LONG = 100 };
    uint64_t *values = (uint64_t *)mv_alloc((size_t)FIELDS * LONG * 8), shape[1] = {LONG};
    char *names = (char *)mv_alloc(FIELDS * 12);
    packbuf_node node;
    packbuf_buffer a, b;
    int good = 1;
    mv_trip trip;
    mv_trip_begin(&trip, LONG, NULL);
    for (unsigned i = 0; i < FIELDS; i++) {
        packbuf_tensor t = array_of(values + i * LONG, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64), 1, shape, NULL, 0);
        for (unsigned k = 0; k < LONG; k++) values[i * LONG + k] = k * k + (i % 3 == 0 && k < 4 ? i % (FIELDS / 2) : 0);
        values[i * LONG + LONG - 1] = i % (FIELDS / 2); /* the last tells them apart, and each comes twice */
        snprintf(names + i * 12, 12, "%u", i);
        packbuf_add_tensor(&trip.batch, names + i * 12, &t, NULL, NULL);
    }
    if (tap_ok(packs(&trip), "%d fields, many alike", FIELDS))
        for (unsigned i = 0; i < FIELDS; i++) {
            good &= !packbuf_get_node(&trip.view, i, &node, NULL) && !packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &b, NULL) && b.storage == (i < FIELDS / 2 ? PACKBUF_STORED : PACKBUF_ALIAS);
            good &= !packbuf_get_node(&trip.view, i % (FIELDS / 2), &node, NULL) && !packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &a, NULL) && a.offset == b.offset;
        }
    tap_ok(good, "each second one is an alias of its first");
    mv_trip_end(&trip);
}

/* What the limit refuses is not kept. */
static void test_limit(void)
{
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
        tap_ok(b.live == before && arena.next == next && arena.used == 1, "a block that is refused for its padding is given back");
    }
    packbuf_arena_free(&arena);
    tap_ok(b.live == 0, "nothing stays");
}

int main(void)
{
    test_dense();
    test_dense_edges();
    test_ragged();
    test_ragged_edges();
    test_tensors();
    test_texts();
    test_values_and_metadata();
    test_schema();
    test_rows();
    test_small();
    test_storage();
    test_options();
    test_exact();
    test_bound();
    test_failures();
    test_changes();
    test_growth();
    test_device();
    test_long();
    test_bools();
    test_nowhere();
    test_keys();
    test_vast();
    test_broadcast();
    test_many_alike();
    test_limit();
    mv_free();
    return tap_plan_done();
}
