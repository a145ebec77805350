/* core/convert.c: integers copied out as another integer dtype, block after block, so that what is unpacked is
 * converted in the first-level cache.
 * May use: base, access, blocks. Must not know: rows, codecs. */

/* int, uint or bool of 8 to 64 bits. */
static int packbuf_i_integer_dtype(packbuf_dtype dtype) {
  return dtype.lanes == 1 &&
         (dtype.code == PACKBUF_DTYPE_INT || dtype.code == PACKBUF_DTYPE_UINT || dtype.code == PACKBUF_DTYPE_BOOL) &&
         (dtype.bits == 8 || dtype.bits == 16 || dtype.bits == 32 || dtype.bits == 64);
}

/* The first of `count` elements that does not fit. */
static uint64_t packbuf_i_first_unfit(const uint8_t *in, packbuf_dtype from, uint64_t count, packbuf_dtype to) {
  uint64_t one, i = 0;
  while (i < count && packbuf_i_convert_units(in + i * (from.bits / 8u), from.bits, from.code == PACKBUF_DTYPE_INT, 1,
                                              &one, to.bits, to.code == PACKBUF_DTYPE_INT))
    i++;
  return i;
}

PACKBUF_API packbuf_status packbuf_convert_elements(const packbuf_view *view, const packbuf_buffer *buffer,
                                                    uint64_t first, uint64_t count, packbuf_dtype dtype, void *dst,
                                                    uint64_t capacity, packbuf_error *error) {
  const packbuf_dtype from = buffer->dtype;
  const unsigned size = from.bits / 8u, out = dtype.bits / 8u;
  uint64_t block[PACKBUF_I_BLOCK_BYTES / 8];
  uint8_t *to = (uint8_t *)dst;
  if (packbuf_i_dtype_equal(from, dtype))
    return packbuf_copy_elements(view, buffer, first, count, dst, capacity, error);
  if (!packbuf_i_integer_dtype(from) || !packbuf_i_integer_dtype(dtype) || dtype.code == PACKBUF_DTYPE_BOOL)
    return packbuf_i_fail(error, PACKBUF_WRONG_TYPE, "elements and what they become must be integers", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  if (count > capacity / out)
    return packbuf_i_fail(error, PACKBUF_CAPACITY, "the destination is too small", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  while (count) {
    const uint64_t in_block = sizeof block / size, inside = in_block - first % in_block;
    const uint64_t take = count < inside ? count : inside;
    const packbuf_status status = packbuf_copy_elements(view, buffer, first, take, block, sizeof block, error);
    if (status != PACKBUF_OK) return status;
    if (!packbuf_i_convert_units(block, from.bits, from.code == PACKBUF_DTYPE_INT, take, to, dtype.bits,
                                 dtype.code == PACKBUF_DTYPE_INT)) {
      const uint64_t at = first + packbuf_i_first_unfit((const uint8_t *)block, from, take, dtype);
      return packbuf_i_fail(error, PACKBUF_LOSSY, "an element does not fit the dtype that was asked for",
                            packbuf_i_element_at(view, buffer, at), PACKBUF_NOWHERE);
    }
    first += take;
    count -= take;
    to += take * out;
  }
  return PACKBUF_OK;
}
