/* core/promote.c: plain numbers and lists of numbers: what they have in common, the dtype that holds them all exactly
 * (section 18 of the spec), what a cell's types byte says (section 9), and their elements in that dtype.
 * May use: values, columns. Must not know: codecs, structure, errors. */

/* The number types of section 9 (float is never written: no dtype but a float one holds floats), and as a set. */
#define PACKBUF_I_NUMBER_BOOL 1u
#define PACKBUF_I_NUMBER_INT 2u
#define PACKBUF_I_NUMBER_FLOAT 3u
#define PACKBUF_I_BOOLS (1u << PACKBUF_I_NUMBER_BOOL)
#define PACKBUF_I_INTS (1u << PACKBUF_I_NUMBER_INT)
#define PACKBUF_I_FLOATS (1u << PACKBUF_I_NUMBER_FLOAT)

/* What is known of the numbers of a column. */
typedef struct packbuf_i_numbers {
  unsigned types;      /* set of the number types that occur */
  int64_t low;         /* least integer below zero, or 0 */
  uint64_t high;       /* greatest integer, or 0 */
  packbuf_dtype asked; /* dtype that the schema asks for; bits 0: none */
  int inexact;         /* a float that `asked` does not hold */
} packbuf_i_numbers;

static unsigned packbuf_i_number_type(unsigned kind) {
  switch (kind) {
    case PACKBUF_BOOL: return PACKBUF_I_NUMBER_BOOL;
    case PACKBUF_INT:
    case PACKBUF_UINT: return PACKBUF_I_NUMBER_INT;
    case PACKBUF_FLOAT: return PACKBUF_I_NUMBER_FLOAT;
    default: return 0;
  }
}

/* The number type that a dtype shows by itself; 0 for complex ones. */
static unsigned packbuf_i_natural_type(packbuf_dtype dtype) {
  switch (dtype.code) {
    case PACKBUF_DTYPE_BOOL: return PACKBUF_I_NUMBER_BOOL;
    case PACKBUF_DTYPE_INT:
    case PACKBUF_DTYPE_UINT: return PACKBUF_I_NUMBER_INT;
    case PACKBUF_DTYPE_COMPLEX: return 0;
    default: return PACKBUF_I_NUMBER_FLOAT;
  }
}

/* ---- floats of every width ---- */

/* Exponent and fraction bits of a float dtype; 0 for other dtypes. */
static unsigned packbuf_i_float_format(packbuf_dtype dtype, unsigned *fraction_bits) {
  unsigned exponent_bits = 0, fraction = 0;
  switch (dtype.code) {
    case PACKBUF_DTYPE_FLOAT: exponent_bits = dtype.bits == 64 ? 11 : dtype.bits == 32 ? 8 : 5; break;
    case PACKBUF_DTYPE_BFLOAT: exponent_bits = 8; break;
    case PACKBUF_DTYPE_FLOAT8_E4M3FN: exponent_bits = 4; break;
    case PACKBUF_DTYPE_FLOAT8_E5M2: exponent_bits = 5; break;
    default: break;
  }
  if (exponent_bits) fraction = dtype.bits - 1u - exponent_bits;
  *fraction_bits = fraction;
  return exponent_bits;
}

/* The bits of a finite, nonzero, normal float64 in a narrower format; 0 when it is not exact there. */
static int packbuf_i_narrow_finite(uint64_t bits, unsigned exponent_bits, unsigned fraction_bits, uint64_t *out) {
  int bias = (1 << (exponent_bits - 1)) - 1, exponent = (int)(bits >> 52 & 2047) - 1023 + bias;
  int e4m3fn = exponent_bits == 4, top = e4m3fn ? 15 : (1 << exponent_bits) - 2;
  uint64_t significand = (bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52;
  unsigned shift = 52 - fraction_bits;
  if (exponent < 1) { /* subnormal there */
    if (exponent < -52) return 0;
    shift += (unsigned)(1 - exponent);
    exponent = 0;
  }
  if (exponent > top || shift > 52 || (significand & (((uint64_t)1 << shift) - 1))) return 0;
  *out = (significand >> shift & (((uint64_t)1 << fraction_bits) - 1)) | (uint64_t)exponent << fraction_bits;
  return !(e4m3fn && *out == 0x7F); /* that one is the NaN */
}

/* The bits of a float64 in a float dtype; returns 0 when the value would change. A narrower NaN is exact only when it
 * is quiet and without payload. */
static int packbuf_i_narrow(double f, packbuf_dtype dtype, uint64_t *out) {
  const uint64_t infinity = (uint64_t)2047 << 52, quiet = (uint64_t)1 << 51;
  uint64_t bits = packbuf_i_double_bits(&f), rest = bits & ~((uint64_t)1 << 63),
           sign = (bits >> 63) << (dtype.bits - 1);
  unsigned fraction_bits, exponent_bits = packbuf_i_float_format(dtype, &fraction_bits);
  uint64_t top = (((uint64_t)1 << exponent_bits) - 1) << fraction_bits;
  *out = bits;
  if (exponent_bits == 11) return 1;
  *out = sign;
  if (rest == 0) return 1;
  if (rest >= infinity) {
    int e4m3fn = dtype.code == PACKBUF_DTYPE_FLOAT8_E4M3FN;
    if (rest == infinity) *out |= top;
    else *out |= e4m3fn ? 0x7F : top | (uint64_t)1 << (fraction_bits - 1);
    return rest == infinity ? !e4m3fn : rest == (infinity | quiet);
  }
  if (rest >> 52 == 0 || !packbuf_i_narrow_finite(rest, exponent_bits, fraction_bits, out)) return 0;
  *out |= sign;
  return 1;
}

/* ---- gathering ---- */

/* Adds `count` plain numbers; returns 0 at the first that is none (of 64 bits). */
static int packbuf_i_count_numbers(packbuf_i_numbers *numbers, const packbuf_value *items, size_t count) {
  unsigned types = 0;
  int64_t low = numbers->low;
  uint64_t high = numbers->high;
  for (size_t i = 0; i < count; i++) {
    const packbuf_value *item = &items[i];
    if (item->kind == PACKBUF_INT) {
      types |= PACKBUF_I_INTS;
      if (item->as.i < low) low = item->as.i;
      if (item->as.i > 0 && (uint64_t)item->as.i > high) high = (uint64_t)item->as.i;
    } else if (item->kind == PACKBUF_FLOAT) {
      types |= PACKBUF_I_FLOATS;
    } else if (item->kind == PACKBUF_UINT) {
      types |= PACKBUF_I_INTS;
      if (item->as.u > high) high = item->as.u;
    } else if (item->kind == PACKBUF_BOOL) {
      types |= PACKBUF_I_BOOLS;
    } else {
      return 0;
    }
  }
  if (numbers->asked.bits && (types & PACKBUF_I_FLOATS)) {
    uint64_t unused;
    for (size_t i = 0; i < count && !numbers->inexact; i++)
      if (items[i].kind == PACKBUF_FLOAT && packbuf_i_natural_type(numbers->asked) == PACKBUF_I_NUMBER_FLOAT)
        numbers->inexact = !packbuf_i_narrow(items[i].as.f, numbers->asked, &unused);
  }
  numbers->types |= types;
  numbers->low = low;
  numbers->high = high;
  return 1;
}

/* Rank and shape of a rectangular nest of lists, at most 8 deep, told by its first items: exact for cells that
 * inference accepted. */
static unsigned packbuf_i_list_shape(const packbuf_value *cell, uint64_t *shape) {
  unsigned rank = 0;
  while (cell->kind == PACKBUF_LIST && rank < PACKBUF_MAX_RANK) {
    shape[rank++] = cell->as.list.count;
    if (cell->as.list.count == 0 || !cell->as.list.items) break;
    cell = &cell->as.list.items[0];
  }
  return rank;
}

static int packbuf_i_count_nest(packbuf_i_numbers *numbers, const packbuf_value *list, const uint64_t *shape,
                                unsigned rank) {
  const packbuf_value *items = list->as.list.items;
  if (list->kind != PACKBUF_LIST || list->as.list.count != shape[0] || (shape[0] && !items)) return 0;
  if (rank == 1) return packbuf_i_count_numbers(numbers, items, list->as.list.count);
  for (size_t i = 0; i < list->as.list.count; i++)
    if (!packbuf_i_count_nest(numbers, &items[i], shape + 1, rank - 1)) return 0;
  return 1;
}

/* Adds the numbers of a list cell; returns its rank, or 0 when it is no rectangular nest of numbers of one type. */
static unsigned packbuf_i_count_list(packbuf_i_numbers *numbers, const packbuf_value *cell) {
  uint64_t shape[PACKBUF_MAX_RANK];
  unsigned rank = packbuf_i_list_shape(cell, shape), before = numbers->types, types;
  numbers->types = 0;
  if (!packbuf_i_count_nest(numbers, cell, shape, rank)) rank = 0;
  types = numbers->types;
  numbers->types |= before;
  return (types & (types - 1)) ? 0 : rank;
}

/* ---- the dtype ---- */

static int packbuf_i_ints_within(const packbuf_i_numbers *numbers, unsigned bits) {
  return numbers->high <= (uint64_t)1 << bits && numbers->low >= -((int64_t)1 << bits);
}

/* 1 when a dtype holds all numbers exactly, and a types buffer can say what they were. */
static int packbuf_i_dtype_holds(packbuf_dtype dtype, const packbuf_i_numbers *numbers) {
  unsigned fraction_bits, types = numbers->types;
  switch (dtype.code) {
    case PACKBUF_DTYPE_BOOL: return !(types & ~PACKBUF_I_BOOLS);
    case PACKBUF_DTYPE_INT:
      return !(types & PACKBUF_I_FLOATS) && numbers->high <= UINT64_MAX >> (65 - dtype.bits) &&
             numbers->low >= -(int64_t)(UINT64_MAX >> (65 - dtype.bits)) - 1;
    case PACKBUF_DTYPE_UINT:
      return !(types & PACKBUF_I_FLOATS) && numbers->high <= UINT64_MAX >> (64 - dtype.bits) && numbers->low == 0;
    default: break;
  }
  if (!packbuf_i_float_format(dtype, &fraction_bits)) return types == 0;
  if (dtype.code != PACKBUF_DTYPE_FLOAT && (types & ~PACKBUF_I_FLOATS)) return 0; /* section 9 knows no marks there */
  return !((types & PACKBUF_I_FLOATS) && numbers->inexact) && packbuf_i_ints_within(numbers, fraction_bits + 1);
}

/* The dtype of plain numbers or lists of them; 0: none holds them all. With no number at all only an asked one will
 * do. */
static int packbuf_i_join_numbers(const packbuf_i_numbers *numbers, packbuf_dtype *dtype) {
  unsigned types = numbers->types;
  *dtype = numbers->asked;
  if (numbers->asked.bits) return packbuf_i_dtype_holds(numbers->asked, numbers);
  if (types == 0) return 0;
  if (types == PACKBUF_I_BOOLS) *dtype = packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8);
  else if (types & PACKBUF_I_FLOATS) *dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64);
  else *dtype = packbuf_dtype_of(numbers->high >> 63 ? PACKBUF_DTYPE_UINT : PACKBUF_DTYPE_INT, 64);
  return packbuf_i_dtype_holds(*dtype, numbers);
}

/* Whether lists with these numbers may share a column with arrays of this dtype. */
static int packbuf_i_arrays_hold(packbuf_dtype dtype, const packbuf_i_numbers *numbers) {
  unsigned types = numbers->types;
  if (numbers->asked.bits) return packbuf_i_dtype_equal(numbers->asked, dtype) && packbuf_i_dtype_holds(dtype, numbers);
  if (types == 0) return 1;
  if (types != PACKBUF_I_BOOLS && dtype.bits != 64) return 0;
  return types == 1u << packbuf_i_natural_type(dtype) && packbuf_i_dtype_holds(dtype, numbers);
}

/* The types byte (section 9) of a cell of a leaf of numbers; 0 for absent cells. */
static uint8_t packbuf_i_cell_type(const packbuf_i_node *leaf, const packbuf_value *cell) {
  unsigned form, type = 0;
  const packbuf_value *number = cell;
  if (cell->kind == PACKBUF_NULL || cell->kind == PACKBUF_MISSING) return 0;
  if (cell->kind == PACKBUF_TENSOR) {
    form = cell->as.tensor->form ? cell->as.tensor->form : (unsigned)PACKBUF_FORM_TENSOR;
  } else {
    form = cell->kind == PACKBUF_LIST ? (unsigned)PACKBUF_FORM_LIST : (unsigned)PACKBUF_FORM_NATURAL;
    while (number->kind == PACKBUF_LIST && number->as.list.count) number = number->as.list.items;
    type = packbuf_i_number_type(number->kind);
    if (type == packbuf_i_natural_type(leaf->dtype)) type = 0;
  }
  return (uint8_t)((form == leaf->form ? 0 : form << 4) | type);
}

/* ---- elements ---- */

static void packbuf_i_put_word(uint64_t word, unsigned bytes, uint8_t *dst) {
  uint32_t word32 = (uint32_t)word;
  uint16_t word16 = (uint16_t)word;
  if (bytes == 8) memcpy(dst, &word, 8);
  else if (bytes == 4) memcpy(dst, &word32, 4);
  else if (bytes == 2) memcpy(dst, &word16, 2);
  else *dst = (uint8_t)word;
}

static uint64_t packbuf_i_integer_word(const packbuf_value *number) {
  return number->kind == PACKBUF_INT    ? (uint64_t)number->as.i
         : number->kind == PACKBUF_UINT ? number->as.u
                                        : (uint64_t)(number->as.boolean != 0);
}

static double packbuf_i_number_double(const packbuf_value *number) {
  return number->kind == PACKBUF_FLOAT  ? number->as.f
         : number->kind == PACKBUF_INT  ? (double)number->as.i
         : number->kind == PACKBUF_UINT ? (double)number->as.u
                                        : (double)(number->as.boolean != 0);
}

static void packbuf_i_put_run(const packbuf_value *items, size_t count, packbuf_dtype dtype, uint8_t *dst) {
  unsigned bytes = dtype.bits / 8u;
  if (packbuf_i_natural_type(dtype) == PACKBUF_I_NUMBER_FLOAT) {
    for (size_t i = 0; i < count; i++, dst += bytes) {
      double f = packbuf_i_number_double(&items[i]);
      uint64_t word;
      if (bytes == 8) {
        memcpy(dst, items[i].kind == PACKBUF_FLOAT ? &items[i].as.f : &f, 8); /* every NaN as it is */
      } else {
        packbuf_i_narrow(f, dtype, &word);
        packbuf_i_put_word(word, bytes, dst);
      }
    }
  } else if (bytes == 8) {
    for (size_t i = 0; i < count; i++, dst += 8) {
      uint64_t word = packbuf_i_integer_word(&items[i]);
      memcpy(dst, &word, 8);
    }
  } else {
    for (size_t i = 0; i < count; i++, dst += bytes) packbuf_i_put_word(packbuf_i_integer_word(&items[i]), bytes, dst);
  }
}

/* Elements first to first + count, in native byte order, of an accepted cell (a plain number or a nest of lists) in the
 * leaf's dtype. */
static void packbuf_i_put_numbers(const packbuf_value *cell, packbuf_dtype dtype, uint64_t first, uint64_t count,
                                  void *dst) {
  uint64_t shape[PACKBUF_MAX_RANK], inner, left;
  unsigned rank = packbuf_i_list_shape(cell, shape);
  uint8_t *to = (uint8_t *)dst;
  if (rank < 2) {
    packbuf_i_put_run(rank ? cell->as.list.items + first : cell, (size_t)count, dtype, to);
    return;
  }
  inner = shape[rank - 1];
  for (; count; first += left, count -= left) { /* one innermost list at a time */
    uint64_t row = first / inner, at = first % inner, step = 1;
    const packbuf_value *list = cell;
    for (unsigned d = 1; d + 1 < rank; d++) step *= shape[d];
    for (unsigned d = 0; d + 1 < rank; d++) {
      list = &list->as.list.items[row / step];
      row %= step;
      if (d + 2 < rank) step /= shape[d + 1];
    }
    left = inner - at < count ? inner - at : count;
    packbuf_i_put_run(list->as.list.items + at, (size_t)left, dtype, to);
    to += left * (dtype.bits / 8u);
  }
}
