/* exchange/arrow_numbers.c: elements of checked arrays of numbers: where they lie, and copies as a packed buffer has
 * them: bools as bytes, days as int64.
 * May use: arrow_type, arrow_check. Must not know: values, batches. */

/* Whether an array may have nulls. */
static int packbuf_i_may_be_null(const struct ArrowArray *array) {
  return array->n_buffers && array->buffers[0] && array->null_count != 0;
}

/* Whether elements first to first + count (from the array's offset) are all there. */
static int packbuf_i_none_null(const struct ArrowArray *array, uint64_t first, uint64_t count) {
  if (!packbuf_i_may_be_null(array)) return 1;
  for (uint64_t i = 0; i < count; i++)
    if (!packbuf_i_arrow_valid(array, (uint64_t)array->offset + first + i)) return 0;
  return 1;
}

static int packbuf_i_is_number(const packbuf_i_arrow *type) {
  return type->kind == PACKBUF_I_ARROW_NUMBER || type->kind == PACKBUF_I_ARROW_BOOL ||
         type->kind == PACKBUF_I_ARROW_COMPLEX;
}

/* The dtype that numbers get: days become int64. */
static packbuf_dtype packbuf_i_number_dtype(const packbuf_i_arrow *type) {
  if (type->kind == PACKBUF_I_ARROW_BOOL) return packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8);
  return type->unit ? packbuf_dtype_of(PACKBUF_DTYPE_INT, 64) : type->dtype;
}

/* Elements of one array, which hold the numbers of a column: where they lie; NULL: they are to be converted. */
static const uint8_t *packbuf_i_numbers_at(const packbuf_i_arrow *type, const struct ArrowArray *array,
                                           uint64_t first) {
  const uint64_t at = (uint64_t)array->offset + first;
  if (type->kind == PACKBUF_I_ARROW_COMPLEX) {
    const struct ArrowArray *parts = array->children[0];
    return (const uint8_t *)parts->buffers[1] + ((uint64_t)parts->offset + 2 * at) * (type->dtype.bits / 16u);
  }
  if (type->kind == PACKBUF_I_ARROW_BOOL || (type->unit && type->dtype.bits != 64)) return NULL;
  return (const uint8_t *)array->buffers[1] + at * (type->dtype.bits / 8u);
}

/* An integer as it is stored. */
static uint64_t packbuf_i_arrow_integer(const uint8_t *at, packbuf_dtype dtype) {
  uint8_t one;
  uint16_t two;
  uint32_t four;
  uint64_t eight;
  const int sign = dtype.code == PACKBUF_DTYPE_INT;
  switch (dtype.bits) {
    case 8: memcpy(&one, at, 1); return sign ? (uint64_t)(int64_t)(int8_t)one : one;
    case 16: memcpy(&two, at, 2); return sign ? (uint64_t)(int64_t)(int16_t)two : two;
    case 32: memcpy(&four, at, 4); return sign ? (uint64_t)(int64_t)(int32_t)four : four;
    default: memcpy(&eight, at, 8); return eight;
  }
}

/* Copies elements to `out`, as packbuf_i_number_dtype has them. */
static void packbuf_i_copy_numbers(const packbuf_i_arrow *type, const struct ArrowArray *array, uint64_t first,
                                   uint64_t count, uint8_t *out) {
  const uint8_t *from = count ? packbuf_i_numbers_at(type, array, first) : out;
  const uint64_t at = (uint64_t)array->offset + first;
  const uint8_t *data = type->kind == PACKBUF_I_ARROW_COMPLEX ? NULL : (const uint8_t *)array->buffers[1];
  if (count == 0) return;
  if (from) {
    memcpy(out, from, (size_t)(count * (type->dtype.bits / 8u)));
    return;
  }
  for (uint64_t i = 0; i < count; i++) {
    if (type->kind == PACKBUF_I_ARROW_BOOL) {
      out[i] = data[(at + i) / 8] >> (at + i) % 8 & 1;
    } else {
      const uint64_t day = packbuf_i_arrow_integer(data + (at + i) * 4, type->dtype);
      memcpy(out + 8 * i, &day, 8);
    }
  }
}
