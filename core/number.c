/* core/number.c: one element of a dtype as a plain number: widening to float64 bit for bit, exactness of number types,
 * the value it is shown as.
 * May use: base, access, tables (forms), value, promote (number types). Must not know: rows, where elements lie. */

/* An element of 8 to 64 bits as a little-endian number; 0 when there is none. */
static int packbuf_i_get_raw(const packbuf_buffer *buffer, uint64_t i, uint64_t *out) {
  uint8_t raw[8] = {0};
  const size_t size = packbuf_i_element_bits(buffer->dtype) / 8;
  if (size == 8) return packbuf_i_get64(buffer, i, out);
  if (PACKBUF_I_UNLIKELY(i >= buffer->count || size == 0 || size > 8)) return 0;
  if (buffer->packing != 0)
    return buffer->headers && packbuf_i_unpack_unit(buffer, packbuf_i_unit_bits(buffer->dtype), i, out);
  if (PACKBUF_I_UNLIKELY(buffer->partial != NULL)) return packbuf_i_get_fetched(buffer, i, size, out);
  memcpy(raw, buffer->bytes ? buffer->bytes + i * size : buffer->value, size);
  *out = packbuf_i_load64(raw);
  PACKBUF_I_FETCHED(*out);
  return 1;
}

/* The bits of the float64 of the same value; the payload of a NaN moves to the top of the wider fraction. */
static uint64_t packbuf_i_widen_element(uint64_t raw, packbuf_dtype dtype) {
  unsigned fraction_bits, top;
  uint64_t sign, fraction;
  int64_t exponent;
  if (dtype.code == PACKBUF_DTYPE_FLOAT && dtype.bits == 64) return raw;
  if (dtype.code == PACKBUF_DTYPE_FLOAT) fraction_bits = dtype.bits == 32 ? 23 : 10;
  else fraction_bits = dtype.code == PACKBUF_DTYPE_BFLOAT ? 7 : dtype.code == PACKBUF_DTYPE_FLOAT8_E4M3FN ? 3 : 2;
  sign = raw >> (dtype.bits - 1u) << 63;
  top = (1u << (dtype.bits - 1u - fraction_bits)) - 1;
  exponent = (int64_t)(raw >> fraction_bits & top);
  fraction = raw & ((UINT64_C(1) << fraction_bits) - 1);
  if (dtype.code == PACKBUF_DTYPE_FLOAT8_E4M3FN) {
    if (exponent == top && fraction == 7) return sign | UINT64_C(0x7FF8) << 48;
  } else if (exponent == top) {
    return sign | UINT64_C(0x7FF) << 52 | fraction << (52 - fraction_bits);
  }
  if (exponent == 0) {
    if (fraction == 0) return sign;
    for (exponent = 1; fraction >> fraction_bits == 0; exponent--) fraction <<= 1;
    fraction &= (UINT64_C(1) << fraction_bits) - 1;
  }
  return sign | (uint64_t)(exponent - (int64_t)(top >> 1) + 1023) << 52 | fraction << (52 - fraction_bits);
}

static double packbuf_i_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}

/* Whether a types byte is one that the leaf allows. */
static int packbuf_i_type_allowed(const packbuf_node *node, uint8_t type) {
  const unsigned form = type >> 4, number = type & 15, shown = form ? form : node->form;
  if (form > 7 || (form && (packbuf_i_forms_allowed(node->codec, node->rank) >> form & 1) == 0)) return 0;
  if (number == 0) return 1;
  if (node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED || (shown != PACKBUF_FORM_NATURAL && shown != PACKBUF_FORM_LIST) ||
      !packbuf_i_dtype_known(node->dtype))
    return 0;
  if (number == PACKBUF_I_NUMBER_BOOL) return node->dtype.code <= PACKBUF_DTYPE_FLOAT;
  return number == PACKBUF_I_NUMBER_INT && node->dtype.code == PACKBUF_DTYPE_FLOAT;
}

/* Whether an element of int, uint or float is exact as the number type: 0 or 1 of bool; of int, integral, within the
 * range where every integer is one; -0.0 is neither. */
static int packbuf_i_exact(uint64_t raw, packbuf_dtype dtype, unsigned number) {
  double value, limit;
  if (dtype.code != PACKBUF_DTYPE_FLOAT) return raw <= 1;
  raw = packbuf_i_widen_element(raw, dtype);
  value = packbuf_i_double(raw);
  limit = dtype.bits == 64 ? 9007199254740992.0 : dtype.bits == 32 ? 16777216.0 : 2048.0;
  if (raw == UINT64_C(1) << 63) return 0;
  if (number == PACKBUF_I_NUMBER_BOOL) return raw == 0 || raw == UINT64_C(0x3FF) << 52;
  return value >= -limit && value <= limit && (double)(int64_t)value == value; /* NaN fails the first */
}

/* An element of a known dtype but complex as a plain number. Returns the rule that it breaks. */
static packbuf_rule packbuf_i_number(const packbuf_buffer *data, uint64_t i, unsigned number, packbuf_value *value) {
  const packbuf_dtype dtype = data->dtype;
  uint64_t raw;
  if (!packbuf_i_get_raw(data, i, &raw)) return PACKBUF_RULE_I7;
  if (dtype.code == PACKBUF_DTYPE_BOOL) {
    *value = packbuf_bool(raw == 1);
    return raw > 1 ? PACKBUF_RULE_D3 : PACKBUF_RULE_NONE;
  }
  if (number != 0) {
    if (!packbuf_i_exact(raw, dtype, number)) return PACKBUF_RULE_D5;
    if (number == PACKBUF_I_NUMBER_BOOL) *value = packbuf_bool(raw != 0);
    else *value = packbuf_int((int64_t)packbuf_i_double(packbuf_i_widen_element(raw, dtype)));
    return PACKBUF_RULE_NONE;
  }
  if (dtype.code == PACKBUF_DTYPE_INT) {
    if (dtype.bits < 64 && raw >> (dtype.bits - 1u)) raw |= UINT64_MAX << dtype.bits;
    *value = packbuf_int(raw >> 63 ? -(int64_t)(UINT64_MAX - raw) - 1 : (int64_t)raw);
  } else if (dtype.code == PACKBUF_DTYPE_UINT) {
    *value = raw >> 63 ? packbuf_uint(raw) : packbuf_int((int64_t)raw);
  } else {
    raw = packbuf_i_widen_element(raw, dtype);
    *value = packbuf_i_float_of(&raw);
  }
  return PACKBUF_RULE_NONE;
}
