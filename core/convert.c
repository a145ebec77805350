/* core/convert.c: integers copied out as those of another width and sign, block after block, so that what is unpacked
 * is converted in the first-level cache.
 * May use: base, lanes (units), blocks (their size), packed (rooms), access. Must not know: rows, codecs. */

#define PACKBUF_I_WIDEN(T, type)                                                         \
  static void packbuf_i_widen_##type(const uint8_t *in, unsigned count, uint64_t *out) { \
    for (unsigned i = 0; i < count; i++) {                                               \
      type##_t number;                                                                   \
      memcpy(&number, in + (size_t)i * (T / 8), T / 8);                                  \
      out[i] = (uint64_t)(int64_t)number;                                                \
    }                                                                                    \
  }
PACKBUF_I_WIDEN(8, int8)
PACKBUF_I_WIDEN(8, uint8)
PACKBUF_I_WIDEN(16, int16)
PACKBUF_I_WIDEN(16, uint16)
PACKBUF_I_WIDEN(32, int32)
PACKBUF_I_WIDEN(32, uint32)

/* To count 64-bit numbers, with the sign's bits or zeros above. */
static void packbuf_i_widen_units(const uint8_t *in, unsigned bits, int is_signed, unsigned count, uint64_t *out) {
  switch (bits) {
    case 8: (is_signed ? packbuf_i_widen_int8 : packbuf_i_widen_uint8)(in, count, out); break;
    case 16: (is_signed ? packbuf_i_widen_int16 : packbuf_i_widen_uint16)(in, count, out); break;
    case 32: (is_signed ? packbuf_i_widen_int32 : packbuf_i_widen_uint32)(in, count, out); break;
    default: memcpy(out, in, (size_t)count * 8); break;
  }
}

/* Stores the low bits of 64-bit numbers and returns the OR of all number + bias. */
#define PACKBUF_I_NARROW(T)                                                                              \
  static uint64_t packbuf_i_narrow_##T(const uint8_t *in, unsigned count, uint64_t bias, uint8_t *out) { \
    uint64_t all = 0;                                                                                    \
    for (unsigned i = 0; i < count; i++) {                                                               \
      uint64_t number;                                                                                   \
      memcpy(&number, in + (size_t)i * 8, 8);                                                            \
      all |= number + bias;                                                                              \
      packbuf_i_unit_store(T, out + (size_t)i * (T / 8), number);                                        \
    }                                                                                                    \
    return all;                                                                                          \
  }
PACKBUF_I_NARROW(8)
PACKBUF_I_NARROW(16)
PACKBUF_I_NARROW(32)
PACKBUF_I_NARROW(64)

static uint64_t packbuf_i_narrow_units(const void *in, unsigned count, uint64_t bias, uint8_t *out, unsigned bits) {
  switch (bits) {
    case 8: return packbuf_i_narrow_8((const uint8_t *)in, count, bias, out);
    case 16: return packbuf_i_narrow_16((const uint8_t *)in, count, bias, out);
    case 32: return packbuf_i_narrow_32((const uint8_t *)in, count, bias, out);
    default: return packbuf_i_narrow_64((const uint8_t *)in, count, bias, out);
  }
}

/* count integers of `bits` to out, which does not overlap in; 0, and out undefined, when one does not fit. Any
 * alignment. */
static int packbuf_i_convert_units(const void *in, unsigned bits, int is_signed, uint64_t count, void *out,
                                   unsigned out_bits, int out_signed) {
  const uint8_t *from = (const uint8_t *)in;
  uint8_t *to = (uint8_t *)out;
  /* a number fits when number + bias is below 2^room */
  const uint64_t bias = is_signed && out_signed ? (uint64_t)1 << (out_bits - 1) : 0;
  const unsigned room = out_bits - (is_signed != out_signed && (out_signed || out_bits == 64) ? 1 : 0);
  uint64_t all = 0, wide[512];
  while (count > 0) {
    const unsigned some = count < 512 ? (unsigned)count : 512;
    if (bits < 64) {
      packbuf_i_widen_units(from, bits, is_signed, some, wide);
      all |= packbuf_i_narrow_units(wide, some, bias, to, out_bits);
    } else all |= packbuf_i_narrow_units(from, some, bias, to, out_bits);
    if (all & ~packbuf_i_low_bits(room)) return 0;
    from += some * (bits / 8);
    to += some * (out_bits / 8);
    count -= some;
  }
  return 1;
}

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

/* Whether elements of one dtype can be converted to another. */
static int packbuf_i_converts(packbuf_dtype from, packbuf_dtype to) {
  return packbuf_i_integer_dtype(from) && packbuf_i_integer_dtype(to) && to.code != PACKBUF_DTYPE_BOOL;
}

static packbuf_status packbuf_i_cannot_convert(packbuf_error *error) {
  return packbuf_i_fail(error, PACKBUF_WRONG_TYPE, "elements and what they become must be integers", PACKBUF_NOWHERE,
                        PACKBUF_NOWHERE);
}

/* Elements that there are, of a dtype that converts, block after block to `to`; packed ones by way of the room.
 * *unfit: with LOSSY, the first that does not fit. */
static packbuf_status packbuf_i_convert_piece(const packbuf_view *view, const packbuf_buffer *buffer,
                                              packbuf_i_block_room *room, uint64_t first, uint64_t count,
                                              packbuf_dtype dtype, uint8_t *to, uint64_t *unfit, uint64_t row,
                                              packbuf_error *error) {
  const packbuf_dtype from = buffer->dtype;
  const unsigned size = from.bits / 8u;
  uint64_t block[PACKBUF_I_BLOCK_BYTES / 8];
  while (count) {
    const uint64_t in_block = sizeof block / size, inside = in_block - first % in_block;
    const uint64_t take = count < inside ? count : inside;
    if (buffer->headers ? !packbuf_i_unpack_piece(buffer, room, first, take, (uint8_t *)block)
                        : !packbuf_i_copy_native(buffer, first, (size_t)take, (uint8_t *)block))
      return packbuf_i_not_fetched(buffer, first * size, take * size, row, error);
    if (!packbuf_i_convert_units(block, from.bits, from.code == PACKBUF_DTYPE_INT, take, to, dtype.bits,
                                 dtype.code == PACKBUF_DTYPE_INT)) {
      *unfit = first + packbuf_i_first_unfit((const uint8_t *)block, from, take, dtype);
      return packbuf_i_fail(error, PACKBUF_LOSSY, "an element does not fit the dtype that was asked for",
                            packbuf_i_element_at(view, buffer, *unfit), row);
    }
    first += take;
    count -= take;
    to += take * (dtype.bits / 8u);
  }
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_convert_elements(const packbuf_view *view, const packbuf_buffer *buffer,
                                                    uint64_t first, uint64_t count, packbuf_dtype dtype, void *dst,
                                                    uint64_t capacity, packbuf_error *error) {
  packbuf_i_block_room room;
  packbuf_status status;
  uint64_t size = 0, unfit;
  if (packbuf_i_dtype_equal(buffer->dtype, dtype))
    return packbuf_copy_elements(view, buffer, first, count, dst, capacity, error);
  if (!packbuf_i_converts(buffer->dtype, dtype)) return packbuf_i_cannot_convert(error);
  status = packbuf_i_may_copy(view, buffer, first, count, &size, error);
  if (status != PACKBUF_OK) return status;
  if (count > capacity / (dtype.bits / 8u))
    return packbuf_i_too_small(error, "the destination is too small", PACKBUF_NOWHERE,
                               count > UINT64_MAX / 8 ? PACKBUF_NOWHERE : count * (dtype.bits / 8u));
  packbuf_i_empty_room(&room);
  return packbuf_i_convert_piece(view, buffer, &room, first, count, dtype, (uint8_t *)dst, &unfit, PACKBUF_NOWHERE,
                                 error);
}
