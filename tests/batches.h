/* Random batches for the tests of writing: every source and codec, short rows and long ones, strides, nulls, bools,
 * devices, dynamic values that end up as JSON and MessagePack. What a batch points to lives until mv_free.
 * Test-only; includes nothing but the public part of packbuf.h and tests/matrix_values.h. */
#ifndef BATCHES_H
#define BATCHES_H

#include "matrix_values.h"

enum { POOL = 3 << 20 };

typedef struct batches_pool {
  uint8_t *bytes, *bools;
  char *text;
} batches_pool;

static inline batches_pool batches_make_pool(void) {
  batches_pool pool;
  pool.bytes = (uint8_t *)mv_alloc(POOL);
  pool.bools = (uint8_t *)mv_alloc(POOL);
  pool.text = (char *)mv_alloc(POOL);
  for (size_t i = 0; i < POOL; i++) {
    pool.bytes[i] = (uint8_t)(mv_random() >> 30);
    pool.bools[i] = pool.bytes[i] & 1;
    pool.text[i] = (char)('a' + pool.bytes[i] % 26);
  }
  return pool;
}

/* A 1-d array. */
static inline packbuf_tensor array_of(const void *data, packbuf_dtype dtype, const uint64_t *shape) {
  packbuf_tensor t;
  memset(&t, 0, sizeof t);
  t.data = data;
  t.dtype = dtype;
  t.rank = 1;
  t.shape = shape;
  return t;
}

/* A device whose memory is host memory seen through its hook. */
static inline packbuf_status batches_device_copy(void *context, void *dst, const void *src, size_t size) {
  (void)context;
  memcpy(dst, src, size);
  return PACKBUF_OK;
}

static const packbuf_device batches_device = {2, 0, batches_device_copy, NULL};

/* Mostly short, sometimes long. */
static inline unsigned batches_length(unsigned longest) {
  switch (mv_below(8)) {
    case 0: return 0;
    case 1: return mv_below(longest);
    default: return mv_below(longest / 16 + 2);
  }
}

static inline const uint8_t *batches_source(const batches_pool *pool, packbuf_dtype dtype, size_t size) {
  const uint8_t *from = dtype.code == PACKBUF_DTYPE_BOOL ? pool->bools : pool->bytes;
  return from + mv_below((unsigned)(POOL - size));
}

static inline uint8_t *batches_bitmap(uint64_t rows) {
  uint8_t *bitmap = (uint8_t *)mv_alloc(rows / 8 + 1);
  for (uint64_t i = 0; i <= rows / 8; i++) bitmap[i] = (uint8_t)(mv_random() | mv_random() >> 20);
  return bitmap;
}

/* An array of the shape with strides that stay inside `room` bytes of the pool, or contiguous. */
static inline packbuf_tensor batches_array(const batches_pool *pool, packbuf_dtype dtype, unsigned rank,
                                           const uint64_t *shape) {
  packbuf_tensor t;
  size_t size = dtype.bits / 8u;
  unsigned layout = mv_below(4);
  memset(&t, 0, sizeof t);
  t.dtype = dtype;
  t.rank = (uint8_t)rank;
  t.form = PACKBUF_FORM_TENSOR;
  if (rank) t.shape = (const uint64_t *)mv_copy(shape, rank * sizeof *shape);
  if (layout && rank) {
    int64_t *strides = (int64_t *)mv_alloc(rank * sizeof *strides);
    for (unsigned i = 0; i < rank; i++) {
      unsigned d = layout == 1 ? i : rank - 1 - i; /* Fortran order; padded; inner dimension broadcast */
      strides[d] = layout == 3 && i == 0 ? 0 : (int64_t)size;
      size *= (size_t)(shape[d] ? shape[d] : 1);
      if (layout == 2 && i) size += dtype.bits / 8u;
    }
    t.strides = strides;
  } else {
    for (unsigned i = 0; i < rank; i++) size *= (size_t)shape[i];
  }
  t.data = batches_source(pool, dtype, size);
  if (mv_below(5) == 0) t.device = &batches_device;
  return t;
}

static inline packbuf_status batches_add_dense(packbuf_batch *batch, const batches_pool *pool, const char *name,
                                               uint64_t rows, packbuf_error *error) {
  packbuf_dtype dtype = mv_dtype_at(mv_below(MV_DTYPES));
  unsigned rank = 1 + mv_below(3);
  uint64_t shape[3];
  packbuf_tensor t;
  shape[0] = rows;
  shape[1] = 1 + mv_below(rank == 2 ? 200 : 12);
  shape[2] = 1 + mv_below(12);
  while (rows * shape[1] > 50000) shape[1] = shape[1] / 2 + 1;
  t = batches_array(pool, dtype, rank, shape);
  return packbuf_add_tensor(batch, name, &t, mv_below(3) ? NULL : batches_bitmap(rows), error);
}

static inline packbuf_status batches_add_ragged(packbuf_batch *batch, const batches_pool *pool, const char *name,
                                                uint64_t rows, packbuf_error *error) {
  packbuf_ragged r;
  int64_t *offsets = (int64_t *)mv_alloc((rows + 1) * 8), *lengths = (int64_t *)mv_alloc((rows + 1) * 8), at = 0;
  uint64_t *item = (uint64_t *)mv_alloc(16);
  size_t size;
  memset(&r, 0, sizeof r);
  r.dtype = mv_dtype_at(mv_below(MV_DTYPES));
  r.item_rank = (uint8_t)mv_below(2);
  item[0] = 1 + mv_below(3);
  r.item_shape = item;
  size = (size_t)(r.dtype.bits / 8u * (r.item_rank ? item[0] : 1));
  if (mv_below(2)) r.item_stride = (int64_t)(size * (1 + mv_below(2)));
  for (uint64_t i = 0; i <= rows; i++) {
    offsets[i] = at;
    lengths[i] = (int64_t)batches_length(20000);
    if ((uint64_t)(at + lengths[i]) * size * 2 > POOL / 2) lengths[i] = 0;
    at += lengths[i];
  }
  r.items = (uint64_t)at + 1;
  r.offset_bits = 64;
  r.offsets = offsets;
  if (mv_below(2)) r.lengths = lengths;
  if (mv_below(2)) r.validity = batches_bitmap(rows);
  if (mv_below(4) == 0) r.device = &batches_device;
  r.data = batches_source(pool, r.dtype, POOL / 2);
  return packbuf_add_ragged(batch, name, &r, error);
}

static inline packbuf_status batches_add_tensors(packbuf_batch *batch, const batches_pool *pool, const char *name,
                                                 uint64_t rows, packbuf_error *error) {
  packbuf_dtype dtype = mv_dtype_at(mv_below(MV_DTYPES));
  packbuf_tensor *tensors = (packbuf_tensor *)mv_alloc((rows + 1) * sizeof *tensors);
  unsigned mixed = mv_below(2);
  memset(tensors, 0, (size_t)(rows + 1) * sizeof *tensors);
  for (uint64_t i = 0; i < rows; i++) {
    uint64_t shape[2];
    shape[0] = 1 + batches_length(mixed ? 200 : 6000);
    shape[1] = 1 + mv_below(5);
    if (mv_below(9)) tensors[i] = batches_array(pool, dtype, mixed ? 1 + mv_below(2) : 1, shape);
  }
  tensors[0].dtype = dtype; /* at least the first says what the others are */
  if (!tensors[0].data) tensors[0] = batches_array(pool, dtype, 0, NULL);
  return packbuf_add_tensors(batch, name, tensors, error);
}

static inline packbuf_status batches_add_texts(packbuf_batch *batch, const batches_pool *pool, const char *name,
                                               uint64_t rows, packbuf_error *error) {
  packbuf_text *texts = (packbuf_text *)mv_alloc((rows + 1) * sizeof *texts);
  int binary = mv_below(2) != 0;
  for (uint64_t i = 0; i < rows; i++) {
    texts[i].size = batches_length(30000);
    texts[i].data = (binary ? (const char *)pool->bytes : pool->text) + mv_below(POOL - 30000);
    if (mv_below(9) == 0) texts[i].data = NULL, texts[i].size = 0;
  }
  return binary ? packbuf_add_bytes(batch, name, texts, error) : packbuf_add_strings(batch, name, texts, error);
}

enum { NUMBERS, LISTS, JSON, MSGPACK, MEDIA, MEDIA_LISTS, OPAQUE, SCALARS, DICTS, VALUE_KINDS };

static inline packbuf_value batches_list_of_numbers(unsigned count) {
  packbuf_value *items = (packbuf_value *)mv_alloc((count + 1) * sizeof *items);
  for (unsigned i = 0; i < count; i++) items[i] = packbuf_int((int64_t)(mv_random() >> 20));
  return packbuf_list(items, count);
}

static inline packbuf_value batches_media(const batches_pool *pool) {
  packbuf_media *media = (packbuf_media *)mv_alloc(sizeof *media);
  *media =
      packbuf_media_of(pool->bytes + mv_below(POOL - 20000), batches_length(20000), mv_below(2) ? "image/png" : NULL);
  if (mv_below(2)) media->height = mv_below(1000);
  return packbuf_media_value(media);
}

/* One cell of a column of that kind, never null. */
static inline packbuf_value batches_cell(const batches_pool *pool, unsigned kind) {
  packbuf_value *items = (packbuf_value *)mv_alloc(4 * sizeof *items);
  packbuf_value text =
      packbuf_string_n(pool->text + mv_below(POOL - 90000), batches_length(mv_below(50) ? 900 : 90000));
  switch (kind) {
    case NUMBERS: return packbuf_float((double)mv_random());
    case LISTS: {
      packbuf_tensor *t = (packbuf_tensor *)mv_alloc(sizeof *t);
      uint64_t shape[1];
      if (mv_below(2)) return batches_list_of_numbers(1 + batches_length(600));
      shape[0] = 1 + batches_length(4000);
      *t = batches_array(pool, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), 1, shape);
      t->form = PACKBUF_FORM_ARRAY;
      return packbuf_tensor_value(t);
    }
    case JSON:
      items[0] = text;
      items[1] = packbuf_int((int64_t)mv_random());
      items[2] = packbuf_list(items, mv_below(3));
      return packbuf_list(items, mv_below(4));
    case MSGPACK: {
      packbuf_tensor *t = (packbuf_tensor *)mv_alloc(sizeof *t);
      uint64_t shape[1];
      shape[0] = batches_length(3000);
      *t = batches_array(pool, packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), 1, shape);
      items[0] = packbuf_bytes(pool->bytes + mv_below(POOL - 9000), batches_length(9000));
      items[1] = packbuf_tensor_value(t);
      items[2] = text;
      return packbuf_list(items, 1 + mv_below(3));
    }
    case MEDIA: return batches_media(pool);
    case MEDIA_LISTS:
      for (unsigned i = 0; i < 4; i++)
        items[i] = mv_below(3) ? batches_media(pool) : packbuf_bytes(pool->bytes, batches_length(3000));
      return packbuf_list(items, mv_below(5));
    case OPAQUE: {
      packbuf_opaque *opaque = (packbuf_opaque *)mv_alloc(sizeof *opaque);
      memset(opaque, 0, sizeof *opaque);
      opaque->data = pool->bytes + mv_below(POOL - 9000);
      opaque->size = batches_length(9000);
      opaque->serializer = "pickle";
      opaque->serializer_size = 6;
      return packbuf_opaque_value(opaque);
    }
    case SCALARS: {
      packbuf_tensor *t = (packbuf_tensor *)mv_alloc(sizeof *t);
      *t = batches_array(pool, packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32), 0, NULL);
      t->form = PACKBUF_FORM_SCALAR;
      return packbuf_tensor_value(t);
    }
    default: {
      packbuf_entry *entries = (packbuf_entry *)mv_alloc(2 * sizeof *entries);
      entries[0].key = packbuf_string("text");
      entries[0].value = text;
      entries[1].key = packbuf_string("n");
      entries[1].value = packbuf_int((int64_t)mv_random());
      return packbuf_dict(entries, mv_below(3));
    }
  }
}

static inline packbuf_status batches_add_values(packbuf_batch *batch, const batches_pool *pool, const char *name,
                                                uint64_t rows, packbuf_error *error) {
  packbuf_value *values = (packbuf_value *)mv_alloc((rows + 1) * sizeof *values);
  unsigned kind = mv_below(VALUE_KINDS), nulls = mv_below(2);
  for (uint64_t i = 0; i < rows; i++) values[i] = nulls && mv_below(9) == 0 ? packbuf_null() : batches_cell(pool, kind);
  return packbuf_add_values(batch, name, values, error);
}

/* Adds `fields` random fields; what a random batch is refused for is the test's mistake. */
static inline packbuf_status batches_fill(packbuf_batch *batch, const batches_pool *pool, uint64_t rows,
                                          unsigned fields, packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  for (unsigned i = 0; i < fields && !status; i++) {
    char name[16];
    const char *kept;
    snprintf(name, sizeof name, "f%u", i);
    kept = (const char *)mv_copy(name, strlen(name));
    switch (mv_below(6)) {
      case 0: status = batches_add_dense(batch, pool, kept, rows, error); break;
      case 1: status = batches_add_ragged(batch, pool, kept, rows, error); break;
      case 2: status = batches_add_tensors(batch, pool, kept, rows, error); break;
      case 3: status = batches_add_texts(batch, pool, kept, rows, error); break;
      default: status = batches_add_values(batch, pool, kept, rows, error);
    }
  }
  return status;
}

#endif
