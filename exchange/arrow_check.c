/* exchange/arrow_check.c: whether an array is what its type says: buffers and children are there, lengths fit, offsets
 * ascend. What Arrow tells no one, how much memory a buffer has, is the caller's word. After this reading one needs no
 * further check, but of dictionary indexes and views.
 * May use: arrow_type. Must not know: values. */

/* Bit i of a validity bitmap; all are valid without one. */
static int packbuf_i_arrow_valid(const struct ArrowArray *array, uint64_t i) {
  const uint8_t *bits = array->n_buffers ? (const uint8_t *)array->buffers[0] : NULL;
  return !bits || (bits[i / 8] >> i % 8 & 1);
}

/* Offset i of an array of text or lists; those of 32 bits widened. */
static int64_t packbuf_i_arrow_offset(const packbuf_i_arrow *type, const struct ArrowArray *array, uint64_t i) {
  const uint8_t *offsets = (const uint8_t *)array->buffers[1];
  int64_t wide;
  int32_t narrow;
  if (!offsets) return 0; /* of no elements: producers may leave them out */
  if (type->wide) {
    memcpy(&wide, offsets + 8 * i, 8);
    return wide;
  }
  memcpy(&narrow, offsets + 4 * i, 4);
  return narrow;
}

static packbuf_status packbuf_i_bad_array(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                          const char *message) {
  return packbuf_i_refuse_type(in, type, PACKBUF_INVALID_ARGUMENT, message);
}

/* What all arrays have. */
static packbuf_status packbuf_i_check_frame(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array) {
  const int view = type->kind == PACKBUF_I_ARROW_VIEWS;
  int64_t buffers = 1;
  if (!array || !array->release) return packbuf_i_bad_array(in, type, "an array that is released");
  if (array->length < 0 || array->offset < 0 || array->length > INT64_MAX - array->offset || array->null_count < -1 ||
      array->null_count > array->length)
    return packbuf_i_bad_array(in, type, "an array whose length, offset or number of nulls cannot be");
  if (type->kind == PACKBUF_I_ARROW_NULL) buffers = array->n_buffers == 1; /* as before Arrow 1.0, and polars */
  else if (type->kind == PACKBUF_I_ARROW_BYTES || view) buffers = 3;
  else if (type->kind == PACKBUF_I_ARROW_NUMBER || type->kind == PACKBUF_I_ARROW_BOOL ||
           type->kind == PACKBUF_I_ARROW_BLOCK || type->kind == PACKBUF_I_ARROW_LIST ||
           type->kind == PACKBUF_I_ARROW_DICTIONARY)
    buffers = 2;
  if (view ? array->n_buffers < buffers || array->n_buffers > INT32_MAX : array->n_buffers != buffers)
    return packbuf_i_bad_array(in, type, "an array with another number of buffers than its type has");
  if (array->n_children != type->schema->n_children || (array->n_children > 0 && !array->children))
    return packbuf_i_bad_array(in, type, "an array with another number of children than its type has");
  if (buffers && !array->buffers) return packbuf_i_bad_array(in, type, "an array without its buffers");
  if (buffers && type->kind != PACKBUF_I_ARROW_NULL && array->null_count > 0 && !array->buffers[0])
    return packbuf_i_bad_array(in, type, "an array with nulls and no validity bitmap");
  return PACKBUF_OK;
}

/* Offsets of the elements ascend from 0 or above; *end: the last. */
static packbuf_status packbuf_i_check_arrow_offsets(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                                    const struct ArrowArray *array, int64_t *end) {
  const uint64_t first = (uint64_t)array->offset, count = (uint64_t)array->length;
  int64_t before;
  *end = 0;
  if (!array->buffers[1]) return count ? packbuf_i_bad_array(in, type, "an array without its offsets") : PACKBUF_OK;
  before = packbuf_i_arrow_offset(type, array, first);
  if (before < 0) return packbuf_i_refuse_arrow(in, type->path, PACKBUF_BAD_OFFSETS, "offsets below 0", 0);
  for (uint64_t i = 1; i <= count; i++) {
    const int64_t offset = packbuf_i_arrow_offset(type, array, first + i);
    if (offset < before) return packbuf_i_refuse_arrow(in, type->path, PACKBUF_BAD_OFFSETS, "offsets descend", i - 1);
    before = offset;
  }
  *end = before;
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_check_arrow(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array);

/* A child that has at least `least` elements. */
static packbuf_status packbuf_i_check_child(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *child, uint64_t least) {
  const packbuf_status status = packbuf_i_check_arrow(in, type, child);
  if (status != PACKBUF_OK || (uint64_t)child->length >= least) return status;
  return packbuf_i_bad_array(in, type, "a child array that is shorter than its parent wants");
}

static packbuf_status packbuf_i_check_children(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                               const struct ArrowArray *array, uint64_t least) {
  packbuf_status status = PACKBUF_OK;
  for (int64_t i = 0; status == PACKBUF_OK && i < type->count; i++)
    status = packbuf_i_check_child(in, &type->children[i], array->children[i], least);
  return status;
}

static packbuf_status packbuf_i_check_views(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array) {
  const uint8_t *sizes = (const uint8_t *)array->buffers[array->n_buffers - 1];
  const int64_t blocks = array->n_buffers - 3;
  if ((array->length && !array->buffers[1]) || (blocks && !sizes))
    return packbuf_i_bad_array(in, type, "an array without its buffers");
  return PACKBUF_OK;
}

/* The array and all below it. The type's tree, which has a depth, is followed. */
static packbuf_status packbuf_i_check_arrow(const packbuf_i_importer *in, const packbuf_i_arrow *type,
                                            const struct ArrowArray *array) {
  uint64_t span, least;
  int64_t end;
  packbuf_status status = packbuf_i_check_frame(in, type, array);
  if (status != PACKBUF_OK) return status;
  span = (uint64_t)array->offset + (uint64_t)array->length;
  if (span > (uint64_t)1 << 56) return packbuf_i_bad_array(in, type, "an array of 2^56 elements or more");
  switch (type->kind) {
    case PACKBUF_I_ARROW_NULL: return PACKBUF_OK;
    case PACKBUF_I_ARROW_BYTES:
      status = packbuf_i_check_arrow_offsets(in, type, array, &end);
      if (status == PACKBUF_OK && end && !array->buffers[2])
        return packbuf_i_bad_array(in, type, "an array without its buffers");
      return status;
    case PACKBUF_I_ARROW_VIEWS: return packbuf_i_check_views(in, type, array);
    case PACKBUF_I_ARROW_LIST:
      status = packbuf_i_check_arrow_offsets(in, type, array, &end);
      return status == PACKBUF_OK ? packbuf_i_check_children(in, type, array, (uint64_t)end) : status;
    case PACKBUF_I_ARROW_ROW:
    case PACKBUF_I_ARROW_COMPLEX:
      if (!packbuf_i_mul(span, type->size, &least)) return packbuf_i_bad_array(in, type, "lists that cannot be");
      return packbuf_i_check_children(in, type, array, least);
    case PACKBUF_I_ARROW_STRUCT: return packbuf_i_check_children(in, type, array, span);
    case PACKBUF_I_ARROW_BLOCK:
      if (type->size == 0) return PACKBUF_OK;
      break;
    case PACKBUF_I_ARROW_DICTIONARY:
      status = packbuf_i_check_arrow(in, &type->children[0], array->dictionary);
      if (status != PACKBUF_OK) return status;
      break;
    default: break;
  }
  return array->length && !array->buffers[1] ? packbuf_i_bad_array(in, type, "an array without its buffers")
                                             : PACKBUF_OK;
}
