/* tests/exchange_dlpack.c: columns as tensors of DLPack and back: what is lent and what copied, one cell, strides, what
 * is refused, memory that runs out, the hold.
 * May use: packbuf_exchange.h, exchange.h, failing.h, sealing.h, trips.h, tap.h. Must not know: how tensors are
 * made. */
#include "exchange.h"
#include "failing.h"
#include "sealing.h"
#include "trips.h"

static packbuf_error error;
static packbuf_arena arena;
static packbuf_view view;
static void *packed;
static uint64_t size;

static const char *line(void) {
  static char text[512];
  packbuf_error_format(&error, text, sizeof text);
  return text;
}

static double dense[5][2][3];
static const int32_t items[] = {1, 2, 3, 4, 5, 6, 7};
static const int64_t offsets[] = {0, 2, 2, 6, 7, 7};

static void make(uint8_t packing) {
  static const uint64_t shape[] = {5, 2, 3};
  static const uint8_t mask[] = {0x1B};
  packbuf_options options = packbuf_default_options();
  packbuf_batch batch;
  packbuf_tensor tensor = array_of(dense, f64(), 3, shape, NULL, PACKBUF_FORM_TENSOR), one;
  packbuf_ragged ragged;
  size_t count;
  options.packing = packing;
  options.row_sharing = 0;
  for (unsigned i = 0; i < 30; i++) dense[i / 6][i / 3 % 2][i % 3] = i * 1.5;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = items;
  ragged.dtype = i32();
  ragged.offset_bits = 64;
  ragged.offsets = offsets;
  ragged.items = 7;
  one = array_of(items, i32(), 1, shape, NULL, 0);
  packbuf_arena_init(&arena, NULL);
  (void)packbuf_batch_init(&batch, 5, &arena, &options, &error);
  (void)packbuf_add_tensor(&batch, "dense", &tensor, NULL, &error);
  (void)packbuf_add_tensor(&batch, "holes", &one, mask, &error);
  (void)packbuf_add_ragged(&batch, "ragged", &ragged, &error);
  (void)packbuf_add_values(&batch, "shapes",
                           mv_column("t.i8[2 2](1 2 3 4) t.i8[](5) t.i8[3](6 7 8) t.i8[1 0]() t.i8[1 1](9)", &count),
                           &error);
  (void)packbuf_add_values(&batch, "texts", mv_column("\"a\"*5", &count), &error);
  tap_ok(!packbuf_pack(&batch, &packed, &size, &error) && !packbuf_open(&view, packed, size, 0, NULL, &error),
         "a batch, packing %u: %s", packing, line());
}

static counting count;
static packbuf_selection selection;

static packbuf_export of(const char *path, packbuf_row_selection rows, unsigned flags) {
  packbuf_export what;
  packbuf_node node;
  (void)packbuf_select(&view, 0, NULL, 0, rows, &arena, &selection, &error);
  what = exporting(&selection, packbuf_find(&view, 0, path, &node, &error) ? PACKBUF_NO_NODE : node.index, &count);
  what.flags = flags;
  return what;
}

static int inside(const void *at) {
  return (const uint8_t *)at >= (const uint8_t *)packed && (const uint8_t *)at < (const uint8_t *)packed + size;
}

static double element(const DLTensor *t, int64_t a, int64_t b, int64_t c) {
  double out;
  memcpy(&out, (const uint8_t *)t->data + 8 * (a * t->strides[0] + b * t->strides[1] + c * t->strides[2]), 8);
  return out;
}

static void outwards(int lent) {
  DLManagedTensorVersioned *v;
  DLManagedTensor *u;
  packbuf_export what = of("dense", packbuf_rows_all(), 0);
  tap_ok(!packbuf_dlpack(&what, &v, &error) && v->version.major == 1 && v->dl_tensor.ndim == 3 &&
             v->dl_tensor.shape[0] == 5 && v->dl_tensor.dtype.code == kDLFloat && v->dl_tensor.dtype.bits == 64 &&
             v->dl_tensor.device.device_type == kDLCPU,
         "dense: %s", line());
  tap_ok(inside(v->dl_tensor.data) == lent &&
             v->flags == (lent ? DLPACK_FLAG_BITMASK_READ_ONLY : DLPACK_FLAG_BITMASK_IS_COPIED),
         lent ? "lent, read-only" : "copied");
  tap_ok(memcmp(&dense[4][1][2], (const double *)v->dl_tensor.data + 29, 8) == 0, "its last element");
  v->deleter(v);
  what = of("dense", packbuf_rows_range(4, PACKBUF_ROWS_BEGIN, -2), 0);
  tap_ok(!packbuf_dlpack(&what, &v, &error) && v->dl_tensor.shape[0] == 3 &&
             element(&v->dl_tensor, 1, 1, 2) == dense[2][1][2] && inside(v->dl_tensor.data) == lent,
         "rows 4, 2, 0%s", lent ? " in place" : "");
  v->deleter(v);
  what = of("dense", packbuf_rows_all(), 0);
  tap_ok(!packbuf_dlpack_unversioned(&what, &u, &error) && !inside(u->dl_tensor.data), "unversioned: a copy");
  u->deleter(u);
  what.flags = PACKBUF_EXPORT_COPY;
  tap_ok(!packbuf_dlpack(&what, &v, &error) && !inside(v->dl_tensor.data) && v->flags == DLPACK_FLAG_BITMASK_IS_COPIED,
         "a copy when asked for");
  v->deleter(v);
  what.flags = PACKBUF_EXPORT_NO_COPY;
  if (lent) {
    tap_ok(!packbuf_dlpack_unversioned(&what, &u, &error) && inside(u->dl_tensor.data),
           "unversioned, lent when vouched for");
    u->deleter(u);
  } else {
    tap_ok(packbuf_dlpack(&what, &v, &error) == PACKBUF_NOT_STORED, "no copy: %s", line());
  }
  what = of("ragged", packbuf_rows_range(1, 4, 1), 0);
  tap_ok(!packbuf_dlpack(&what, &v, &error) && v->dl_tensor.ndim == 1 && v->dl_tensor.shape[0] == 5 &&
             ((const int32_t *)v->dl_tensor.data)[0] == 3,
         "elements of ragged rows 1 to 3");
  v->deleter(v);
  what = of("shapes", packbuf_rows_range(0, 1, 1), PACKBUF_EXPORT_CELL);
  tap_ok(!packbuf_dlpack(&what, &v, &error) && v->dl_tensor.ndim == 2 && v->dl_tensor.strides[0] == 2 &&
             ((const int8_t *)v->dl_tensor.data)[3] == 4,
         "a cell in its shape");
  v->deleter(v);
  what = of("shapes", packbuf_rows_range(1, 2, 1), PACKBUF_EXPORT_CELL);
  tap_ok(!packbuf_dlpack(&what, &v, &error) && v->dl_tensor.ndim == 0 && ((const int8_t *)v->dl_tensor.data)[0] == 5,
         "a cell without dimensions");
  v->deleter(v);
  what = of("dense", packbuf_rows_range(3, 4, 1), PACKBUF_EXPORT_CELL);
  tap_ok(!packbuf_dlpack(&what, &v, &error) && v->dl_tensor.ndim == 2 &&
             ((const double *)v->dl_tensor.data)[0] == dense[3][0][0],
         "a dense cell");
  v->deleter(v);
  tap_ok(count.taken == count.released, "all %ld are released", count.taken);
}

static void refused(const char *name, packbuf_export what, packbuf_status status) {
  DLManagedTensorVersioned *v = NULL;
  tap_ok(packbuf_dlpack(&what, &v, &error) == status && !v && count.taken == count.released, "%s: %s", name, line());
}

static void refusals(void) {
  refused("nulls", of("holes", packbuf_rows_all(), 0), PACKBUF_NOT_NULLABLE);
  tap_ok(error.row == 2, "in row 2");
  refused("text", of("texts", packbuf_rows_all(), 0), PACKBUF_WRONG_TYPE);
  refused("a cell of five rows", of("dense", packbuf_rows_all(), PACKBUF_EXPORT_CELL), PACKBUF_ROW_COUNT);
  refused("both copy and no copy", of("dense", packbuf_rows_all(), PACKBUF_EXPORT_COPY | PACKBUF_EXPORT_NO_COPY),
          PACKBUF_INVALID_ARGUMENT);
  refused("no node", of("nothing", packbuf_rows_all(), 0), PACKBUF_INVALID_ARGUMENT);
  refused("an unknown flag", of("dense", packbuf_rows_all(), 64), PACKBUF_INVALID_ARGUMENT);
}

/* Cells may have 8 dimensions, 9 with the rows. An array has 8 here: one more is written to the head. */
static void nine_dimensions(void) {
  static const uint64_t shape[] = {5, 1, 1, 1, 1, 1, 1, 1};
  const packbuf_view before = view;
  packbuf_batch batch;
  packbuf_tensor eight = array_of(items, i32(), 8, shape, NULL, PACKBUF_FORM_TENSOR);
  packbuf_node node;
  void *made;
  uint64_t made_size;
  uint8_t *bytes;
  (void)packbuf_batch_init(&batch, 5, &arena, NULL, &error);
  (void)packbuf_add_tensor(&batch, "nine dimensions", &eight, NULL, &error);
  (void)packbuf_pack(&batch, &made, &made_size, &error);
  (void)packbuf_open(&view, made, made_size, 0, NULL, &error);
  bytes = (uint8_t *)made;
  bytes[bytes_node_at(&view, 0) + 30] = 8;
  bytes_store64(bytes + view.strings_at + view.strings_length, 1); /* where the head is padded */
  bytes_store64(bytes + 88, view.strings_length + 8);
  seal_head(bytes, made_size);
  tap_ok(!packbuf_open(&view, made, made_size, 0, NULL, &error) && !packbuf_get_node(&view, 0, &node, &error) &&
             node.rank == 8 && node.shape[7] == 1,
         "cells of 8 dimensions: %s", line());
  refused("9 with the rows", of("nine dimensions", packbuf_rows_all(), 0), PACKBUF_WRONG_TYPE);
  view = before;
}

static void without_memory(void) {
  unsigned long at = 0;
  packbuf_status status = PACKBUF_OUT_OF_MEMORY;
  int clean = 1;
  for (; status == PACKBUF_OUT_OF_MEMORY && at < 100; at++) {
    failing f = failing_at(at, 1);
    const packbuf_allocator allocator = failing_allocator(&f);
    packbuf_export what = of("dense", packbuf_rows_all(), PACKBUF_EXPORT_COPY);
    DLManagedTensorVersioned *v;
    what.allocator = &allocator;
    status = packbuf_dlpack(&what, &v, &error);
    if (!status) v->deleter(v);
    clean &= count.taken == count.released;
  }
  tap_ok(status == PACKBUF_OK && clean && at > 1, "without memory at each of %lu calls", at);
}

static DLTensor tensor_of(const void *data, int32_t ndim, int64_t *shape, int64_t *strides) {
  DLTensor t;
  memset(&t, 0, sizeof t);
  t.data = (void *)(uintptr_t)data;
  t.device.device_type = kDLCPU;
  t.ndim = ndim;
  t.dtype.code = kDLInt;
  t.dtype.bits = 32;
  t.dtype.lanes = 1;
  t.shape = shape;
  t.strides = strides;
  return t;
}

static void inwards(void) {
  int64_t shape[2] = {2, 3}, strides[2] = {-3, 1}, huge[2] = {INT64_MAX, INT64_MAX}, wide[2] = {INT64_MIN, 1};
  DLTensor t = tensor_of(items, 2, shape, strides);
  packbuf_tensor tensor;
  packbuf_value value;
  size_t n;
  t.byte_offset = 12;
  tap_ok(!packbuf_dlpack_import(&t, &arena, &tensor, &error), "a tensor upside down");
  value = packbuf_tensor_value(&tensor);
  tap_ok(mv_same(mv_column("t.i32[2 3](4 5 6 1 2 3)", &n), &value), "is read as such");
  for (int host = 0; host < 2; host++) {
    t.device.device_type = host ? kDLROCMHost : kDLCUDAHost;
    tap_ok(!packbuf_dlpack_import(&t, &arena, &tensor, &error), "pinned memory is the host's");
  }
  t.device.device_type = kDLCUDA;
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_UNSUPPORTED_DEVICE, "a device: %s", line());
  t = tensor_of(items, 2, shape, strides);
  t.dtype.lanes = 4;
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_UNSUPPORTED_DTYPE, "lanes: %s", line());
  t.dtype.lanes = 1, t.dtype.bits = 4;
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_UNSUPPORTED_DTYPE, "int4");
  t.dtype.bits = 1, t.dtype.code = kDLUInt;
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_UNSUPPORTED_DTYPE, "bits");
  t = tensor_of(items, 9, shape, NULL);
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_INVALID_ARGUMENT, "9 dimensions");
  t = tensor_of(items, -1, shape, NULL);
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_INVALID_ARGUMENT, "-1 dimensions");
  t = tensor_of(items, 2, huge, NULL);
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_INVALID_ARGUMENT, "no such memory: %s", line());
  t = tensor_of(items, 2, shape, wide);
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_INVALID_ARGUMENT, "no such stride");
  shape[0] = 2, shape[1] = 1, wide[0] = INT64_C(1) << 60;
  t = tensor_of(items, 2, shape, wide);
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_INVALID_ARGUMENT, "a stride of 2^62 bytes");
  shape[0] = -2;
  t = tensor_of(items, 2, shape, NULL);
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_INVALID_ARGUMENT, "a dimension below 0");
  shape[0] = 0;
  t = tensor_of(NULL, 2, shape, wide);
  tap_ok(!packbuf_dlpack_import(&t, &arena, &tensor, &error) && tensor.shape[0] == 0,
         "an empty one, whatever its strides");
  shape[0] = 1;
  tap_ok(packbuf_dlpack_import(&t, &arena, &tensor, &error) == PACKBUF_INVALID_ARGUMENT, "no data: %s", line());
}

int main(void) {
  make(PACKBUF_PACKING_NONE);
  outwards(exchange_lends());
  refusals();
  nine_dimensions();
  without_memory();
  inwards();
  packbuf_arena_free(&arena);
  mv_free();
  return tap_plan_done();
}
