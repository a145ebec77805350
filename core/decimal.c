/* core/decimal.c: numbers and text: shortest double formatting, correctly rounded parsing, integers. Text is as in
 * JSON and as Python prints it; results never depend on the locale, the rounding mode or the floating-point registers
 * (x87, flush to zero), because all arithmetic is on integers. IEEE 754 binary64 is assumed.
 * May use: base. Must not know: JSON structure, columns, errors. */

/* ---- 64 x 64 bit products ---- */

#if defined(__SIZEOF_INT128__) && !defined(__TINYC__)
__extension__ typedef unsigned __int128 packbuf_i_decimal_wide;

static uint64_t packbuf_i_multiply(uint64_t a, uint64_t b, uint64_t *low) {
  packbuf_i_decimal_wide p = (packbuf_i_decimal_wide)a * b;
  *low = (uint64_t)p;
  return (uint64_t)(p >> 64);
}
#else
static uint64_t packbuf_i_multiply(uint64_t a, uint64_t b, uint64_t *low) {
  uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
  uint64_t p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0;
  uint64_t middle = (p00 >> 32) + (p01 & 0xFFFFFFFFu) + (p10 & 0xFFFFFFFFu);
  *low = (middle << 32) | (p00 & 0xFFFFFFFFu);
  return a1 * b1 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
}
#endif

/* Leading zero bits of a non-zero word. */
static int packbuf_i_leading_zeros(uint64_t x) {
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__TINYC__)
  return __builtin_clzll(x);
#else
  int n = 0, step;
  for (step = 32; step > 0; step /= 2)
    if ((x >> (64 - step)) == 0) {
      n += step;
      x <<= step;
    }
  return n;
#endif
}

/* ---- powers of ten ---- */

/* floor(a / 2^bits) for |a| < 2^31, without shifting a negative number */
static int packbuf_i_floor_shift(int a, int bits) {
  return (int)(((uint32_t)a + 0x80000000u) >> bits) - (int)(0x80000000u >> bits);
}

/* floor(log2(10^k)); checked against exact arithmetic for |k| <= 400 */
static int packbuf_i_log2_of_pow10(int k) { return packbuf_i_floor_shift(k * 1741647, 19); }

#define PACKBUF_I_POW5_STEP 27 /* 5^27 is the last power of five below 2^63 */
static const uint64_t packbuf_i_pow5_small[PACKBUF_I_POW5_STEP] = {
    1u,
    5u,
    25u,
    125u,
    625u,
    3125u,
    15625u,
    78125u,
    390625u,
    1953125u,
    9765625u,
    48828125u,
    244140625u,
    1220703125u,
    6103515625u,
    30517578125u,
    152587890625u,
    762939453125u,
    3814697265625u,
    19073486328125u,
    95367431640625u,
    476837158203125u,
    2384185791015625u,
    11920928955078125u,
    59604644775390625u,
    298023223876953125u,
    1490116119384765625u,
};

/* The first 192 bits of 10^(27*(i-13)), cut off. (The idea of few table entries times small powers is Ryu's, Adams.) */
static const uint64_t packbuf_i_pow10_base[26][3] = {
    {0x8049A4AC0C5811AEu, 0x205B896D777D6278u, 0xAC261E9F5141430Bu},
    {0xCF42894A5DCE35EAu, 0x52064CAC828675B9u, 0x475F2B7D7DF1AD7Au},
    {0xA76C582338ED2621u, 0xAF2AF2B80AF6F24Eu, 0x657C8F4D43323A36u},
    {0x873E4F75E2224E68u, 0x5A7744A6E804A291u, 0xCC35EDDFCF0996D7u},
    {0xDA7F5BF590966848u, 0xAF39A475506A899Eu, 0xA30294CC2934E662u},
    {0xB080392CC4349DECu, 0xBD8D794D96AACFB3u, 0xFE13A5C86AF64418u},
    {0x8E938662882AF53Eu, 0x547EB47B7282EE9Cu, 0x41B0230E1421487Du},
    {0xE65829B3046B0AFAu, 0x0CB4A5A3112A5112u, 0xA3B561B1CB208396u},
    {0xBA121A4650E4DDEBu, 0x92F34D62616CE413u, 0x21A0183E10583CD3u},
    {0x964E858C91BA2655u, 0x3A6A07F8D510F86Fu, 0xE9082F25E9C5E9ECu},
    {0xF2D56790AB41C2A2u, 0xFAE27299423FB9C3u, 0x3695DAD7E8858901u},
    {0xC428D05AA4751E4Cu, 0xAA97E14C3C26B886u, 0x96842DC95323F5A8u},
    {0x9E74D1B791E07E48u, 0x775EA264CF55347Du, 0xCA49F1C05120C9C7u},
    {0x8000000000000000u, 0x0000000000000000u, 0x0000000000000000u},
    {0xCECB8F27F4200F3Au, 0x0000000000000000u, 0x0000000000000000u},
    {0xA70C3C40A64E6C51u, 0x999090B65F67D924u, 0x0000000000000000u},
    {0x86F0AC99B4E8DAFDu, 0x69A028BB3DED71A3u, 0xDF9F915627C04E28u},
    {0xDA01EE641A708DE9u, 0xE80E6F4820CC9495u, 0xD74BAAD03BC1D8D3u},
    {0xB01AE745B101E9E4u, 0x5EC05DCFF72E7F8Fu, 0xC04C79FFE324301Fu},
    {0x8E41ADE9FBEBC27Du, 0x14588F13BE847307u, 0x23BD6A2059C002F5u},
    {0xE5D3EF282A242E81u, 0x8F1668C8A86DA5FAu, 0xF0B5CCF5176ECC7Cu},
    {0xB9A74A0637CE2EE1u, 0x6D953E2BD7173692u, 0x88EFB0037AC08BDEu},
    {0x95F83D0A1FB69CD9u, 0x4ABDAF101564F98Eu, 0x0D5A4AF7B3A98E47u},
    {0xF24A01A73CF2DCCFu, 0xBC633B39673C8CECu, 0x3D9C44CD2F36917Cu},
    {0xC3B8358109E84F07u, 0x0A862F80EC4700C8u, 0x02606EA01029DC37u},
    {0x9E19DB92B4E31BA9u, 0x6C07A2C26A8346D1u, 0x4944D9F52CD0DEC2u},
};

/* The first 128 bits of 10^k, cut off, for -351 <= k <= 350; exact for 0 <= k <= 55. The base's error of 2^-191 never
 * reaches these bits: every k was compared with exact arithmetic. */
static void packbuf_i_pow10(int k, uint64_t *high, uint64_t *low) {
  int index = (k + 13 * PACKBUF_I_POW5_STEP) / PACKBUF_I_POW5_STEP;
  uint64_t small = packbuf_i_pow5_small[k + 13 * PACKBUF_I_POW5_STEP - index * PACKBUF_I_POW5_STEP];
  const uint64_t *base = packbuf_i_pow10_base[index];
  uint64_t p0, p1, p2, p3, carry, unused;
  int shift;
  carry = packbuf_i_multiply(base[2], small, &unused);
  p2 = packbuf_i_multiply(base[1], small, &p1);
  p1 += carry;
  p2 += p1 < carry;
  carry = p2;
  p3 = packbuf_i_multiply(base[0], small, &p0);
  p2 = p0 + carry;
  p3 += p2 < carry;
  if (p3 == 0) { /* small == 1 */
    *high = p2;
    *low = p1;
    return;
  }
  shift = packbuf_i_leading_zeros(p3);
  if (shift == 0) {
    *high = p3;
    *low = p2;
  } else {
    *high = p3 << shift | p2 >> (64 - shift);
    *low = p2 << shift | p1 >> (64 - shift);
  }
}

/* ---- integers ---- */

/* Writes the decimal digits of value, at most 20, without a terminator; returns their number. */
static size_t packbuf_i_format_u64(uint64_t value, char *out) {
  char reversed[20];
  size_t n = 0, i;
  while (value >= 100000000u) { /* 32-bit divisions from here on, which matters where 64-bit ones are slow */
    uint32_t part = (uint32_t)(value % 100000000u);
    value /= 100000000u;
    for (i = 0; i < 8; i++) {
      reversed[n++] = (char)('0' + part % 10);
      part /= 10;
    }
  }
  {
    uint32_t part = (uint32_t)value;
    do {
      reversed[n++] = (char)('0' + part % 10);
      part /= 10;
    } while (part != 0);
  }
  for (i = 0; i < n; i++) out[i] = reversed[n - 1 - i];
  return n;
}

static size_t packbuf_i_format_i64(int64_t value, char out[24]) {
  if (value >= 0) return packbuf_i_format_u64((uint64_t)value, out);
  out[0] = '-';
  return 1 + packbuf_i_format_u64(0u - (uint64_t)value, out + 1);
}

/* The text matches -?[0-9]+. 1: fits int64, in *i; 2: fits only uint64, in *u; 0: fits neither. */
static int packbuf_i_parse_integer(const char *text, size_t size, int64_t *i, uint64_t *u) {
  const uint64_t limit = (uint64_t)1 << 63;
  uint64_t value = 0;
  int negative = size > 0 && text[0] == '-';
  size_t at = negative ? 1 : 0;
  for (; at < size; at++) {
    unsigned digit = (unsigned)(text[at] - '0');
    if (value > (UINT64_MAX - digit) / 10) return 0;
    value = value * 10 + digit;
  }
  if (negative) {
    if (value > limit) return 0;
    *i = value == limit ? INT64_MIN : -(int64_t)value;
    return 1;
  }
  if (value < limit) {
    *i = (int64_t)value;
    return 1;
  }
  *u = value;
  return 2;
}

/* ---- formatting ---- */

/* floor(g * c / 2^128) for the 128-bit g, with the last bit set when anything was cut off (round to odd) */
static uint64_t packbuf_i_scale_to_odd(uint64_t high, uint64_t low, uint64_t c) {
  uint64_t unused, middle, carry = packbuf_i_multiply(low, c, &unused);
  uint64_t top = packbuf_i_multiply(high, c, &middle);
  middle += carry;
  top += middle < carry;
  return top | (middle > 1);
}

/* Shortest digits that read back as fraction * 2^exponent and, of those, the nearest to it: Giulietti, "The Schubfach
 * way to render doubles". value = result * 10^*power; the result may end in zeros. */
static uint64_t packbuf_i_shortest(uint64_t fraction, int exponent, int narrow, int *power) {
  int k = packbuf_i_floor_shift(exponent * 1262611 - (narrow ? 524031 : 0), 22); /* log10(2^e), log10(3/4 2^e) */
  int h = exponent + packbuf_i_log2_of_pow10(-k) + 1;
  uint64_t high, low, odd = fraction & 1, c = 4 * fraction, left, right, value, s;
  int under, over;
  packbuf_i_pow10(-k, &high, &low);
  if (-k < 0 || -k > 55) { /* the method wants it rounded up */
    low++;
    high += low == 0;
  }
  value = packbuf_i_scale_to_odd(high, low, c << h);
  left = packbuf_i_scale_to_odd(high, low, (c - (narrow ? 1 : 2)) << h) + odd; /* even fractions own their borders */
  right = packbuf_i_scale_to_odd(high, low, (c + 2) << h) - odd;
  *power = k;
  s = value / 4;
  if (s >= 10) { /* one digit less? */
    uint64_t ten = s / 10 * 10;
    under = left <= 4 * ten;
    over = 4 * (ten + 10) <= right;
    if (under != over) return under ? ten : ten + 10;
  }
  under = left <= 4 * s;
  over = 4 * (s + 1) <= right;
  if (under != over) return under ? s : s + 1;
  if (value == 4 * s + 2) return s + (s & 1);
  return value < 4 * s + 2 ? s : s + 1;
}

static size_t packbuf_i_put_exponent(char *out, int exponent) {
  size_t n = 0;
  unsigned e = (unsigned)(exponent < 0 ? -exponent : exponent);
  out[n++] = 'e';
  out[n++] = exponent < 0 ? '-' : '+';
  if (e >= 100) out[n++] = (char)('0' + e / 100);
  out[n++] = (char)('0' + e / 10 % 10);
  out[n++] = (char)('0' + e % 10);
  return n;
}

/* Lays out n digits (the first is not zero), of which the first counts 10^exponent, as Python's repr does. */
static size_t packbuf_i_layout(const char *digits, size_t n, int exponent, char *out) {
  size_t at = 0, whole;
  if (exponent < -4 || exponent >= 16) {
    out[at++] = digits[0];
    if (n > 1) {
      out[at++] = '.';
      memcpy(out + at, digits + 1, n - 1);
      at += n - 1;
    }
    return at + packbuf_i_put_exponent(out + at, exponent);
  }
  if (exponent < 0) {
    memcpy(out, "0.000", 5);
    at = 1u + (size_t)-exponent;
    memcpy(out + at, digits, n);
    return at + n;
  }
  whole = (size_t)exponent + 1;
  if (n <= whole) {
    memcpy(out, digits, n);
    memset(out + n, '0', whole - n);
    out[whole] = '.';
    out[whole + 1] = '0';
    return whole + 2;
  }
  memcpy(out, digits, whole);
  out[whole] = '.';
  memcpy(out + whole + 1, digits + whole, n - whole);
  return n + 1;
}

/* The shortest text that reads back as the same (finite) double, as Python's repr prints it: "1.0", "-0.0", "1e+16".
 * Returns the length, at most 24; no terminator is written. */
static size_t packbuf_i_format_double(double value, char out[32]) {
  char digits[24];
  uint64_t bits, fraction, shortest;
  size_t n, at = 0;
  int biased, power = 0;
  memcpy(&bits, &value, 8);
  if (bits >> 63) out[at++] = '-';
  fraction = bits & (((uint64_t)1 << 52) - 1);
  biased = (int)(bits >> 52 & 0x7FF);
  if (biased == 0 && fraction == 0) {
    memcpy(out + at, "0.0", 3);
    return at + 3;
  }
  if (biased == 0) {
    shortest = packbuf_i_shortest(fraction, -1074, 0, &power);
  } else { /* below a power of two the neighbours lie closer, except below the smallest normal */
    int narrow = fraction == 0 && biased > 1;
    shortest = packbuf_i_shortest(fraction | (uint64_t)1 << 52, biased - 1075, narrow, &power);
  }
  n = packbuf_i_format_u64(shortest, digits);
  power += (int)n - 1;
  while (n > 1 && digits[n - 1] == '0') n--;
  return at + packbuf_i_layout(digits, n, power, out + at);
}

/* ---- parsing ---- */

/* A double below rounding: mantissa * 2^exponent plus a rest; up says what rounding to nearest even does with the rest:
 * 0 nothing, 1 adds one, 2 not known (so close to the middle that more digits are needed). */
typedef struct {
  uint64_t mantissa;
  int exponent;
  int up;
} packbuf_i_rounded;

/* value * 10^power, value > 0, -342 <= power <= 308. One 64 x 128 bit product (after Lemire, "Number parsing at a
 * gigabyte per second") brackets the true value in [product, product + 2) units of its last bit; only when the middle
 * of two doubles lies in that bracket is the result not known. */
static packbuf_i_rounded packbuf_i_scale(uint64_t value, int power) {
  packbuf_i_rounded r;
  int zeros = packbuf_i_leading_zeros(value), exact = power >= 0 && power <= 55, top, drop, wide;
  uint64_t high, low, p2, p1, p0, carry, rest, half;
  packbuf_i_pow10(power, &high, &low);
  value <<= zeros;
  carry = packbuf_i_multiply(value, low, &p0);
  p2 = packbuf_i_multiply(value, high, &p1);
  p1 += carry;
  p2 += p1 < carry;
  wide = (int)(p2 >> 63);
  top = packbuf_i_log2_of_pow10(power) + 63 - zeros + wide; /* 2^top <= value * 10^power < 2^(top+1) */
  drop = 10 + wide;
  if (top < -1022) drop += -1022 - top;
  r.exponent = (top < -1022 ? -1022 : top) - 52;
  if (drop > 64) { /* less than half of the smallest double, unless the bracket says otherwise */
    r.mantissa = 0;
    r.up = drop == 65 && !exact && p2 == UINT64_MAX && p1 >= UINT64_MAX - 1 ? 2 : 0;
    return r;
  }
  half = (uint64_t)1 << (drop - 1);
  r.mantissa = drop == 64 ? 0 : p2 >> drop;
  rest = p2 & (2 * half - 1);
  if (!exact && ((rest == half && p1 == 0) || (rest == half - 1 && p1 >= UINT64_MAX - 1))) r.up = 2;
  else if (rest != half) r.up = rest > half;
  else r.up = p1 != 0 || p0 != 0 || (r.mantissa & 1) != 0;
  return r;
}

/* The bits of (mantissa + up) * 2^exponent; a carry into the exponent field is right as it comes. */
static uint64_t packbuf_i_rounded_bits(packbuf_i_rounded r) {
  uint64_t bits = ((uint64_t)(r.exponent + 1074) << 52) + r.mantissa + (uint64_t)r.up;
  return bits < (uint64_t)0x7FF << 52 ? bits : (uint64_t)0x7FF << 52;
}

/* Natural numbers for the exact comparison. Both sides stay below 2^2700: at most 771 digits (2562 bits), and as both
 * are nearly equal and at least 10^-325, at most 2^54 * 5^1097. */
#define PACKBUF_I_BIG_LIMBS 88
typedef struct {
  uint32_t limb[PACKBUF_I_BIG_LIMBS];
  int size;
} packbuf_i_big;

static void packbuf_i_big_multiply(packbuf_i_big *b, uint32_t factor, uint32_t add) {
  uint64_t carry = add;
  int i;
  for (i = 0; i < b->size; i++) {
    carry += (uint64_t)b->limb[i] * factor;
    b->limb[i] = (uint32_t)carry;
    carry >>= 32;
  }
  if (carry != 0 && b->size < PACKBUF_I_BIG_LIMBS) b->limb[b->size++] = (uint32_t)carry;
}

static void packbuf_i_big_multiply_pow5(packbuf_i_big *b, int power) {
  for (; power >= 13; power -= 13) packbuf_i_big_multiply(b, 1220703125u, 0); /* 5^13 */
  for (; power > 0; power--) packbuf_i_big_multiply(b, 5, 0);
}

static void packbuf_i_big_shift(packbuf_i_big *b, int bits) {
  int limbs = bits / 32, i;
  if (b->size == 0) return;
  packbuf_i_big_multiply(b, (uint32_t)1 << (bits % 32), 0);
  if (b->size + limbs > PACKBUF_I_BIG_LIMBS) limbs = PACKBUF_I_BIG_LIMBS - b->size; /* cannot happen */
  for (i = b->size - 1; i >= 0; i--) b->limb[i + limbs] = b->limb[i];
  for (i = 0; i < limbs; i++) b->limb[i] = 0;
  b->size += limbs;
}

static int packbuf_i_big_compare(const packbuf_i_big *a, const packbuf_i_big *b) {
  int i;
  if (a->size != b->size) return a->size < b->size ? -1 : 1;
  for (i = a->size - 1; i >= 0; i--)
    if (a->limb[i] != b->limb[i]) return a->limb[i] < b->limb[i] ? -1 : 1;
  return 0;
}

/* The digits of a JSON number: the value is about `value` * 10^power, more when `more` digits follow the first 19. */
typedef struct {
  uint64_t value;
  int64_t power;
  const char *first; /* the first digit that is not zero */
  const char *end;   /* the end of the digits (and of the point) */
  int more;
} packbuf_i_decimal;

/* Decides `up` of r by comparing all digits with the middle above r's mantissa. No middle has more than 767 digits, so
 * of those after 770 it only matters whether any is not zero: a last digit 1 stands for them. */
static int packbuf_i_exact_up(const packbuf_i_decimal *d, packbuf_i_rounded r) {
  packbuf_i_big digits, middle;
  const char *p;
  int64_t power = d->power;
  int count = 0, sticky = 0, twos, order;
  digits.size = 0;
  middle.size = 2;
  middle.limb[0] = (uint32_t)(2 * r.mantissa + 1);
  middle.limb[1] = (uint32_t)((2 * r.mantissa + 1) >> 32);
  if (middle.limb[1] == 0) middle.size = 1;
  for (p = d->first; p < d->end; p++) {
    if (*p == '.') continue;
    if (count <= 770) count++; /* stays at 771 */
    if (count <= 770) packbuf_i_big_multiply(&digits, 10, (uint32_t)(*p - '0'));
    else sticky |= *p != '0';
    if (count > 19 && count <= 770) power--; /* d->power belongs to the first 19 digits */
  }
  if (sticky) {
    packbuf_i_big_multiply(&digits, 10, 1);
    power--;
  }
  twos = r.exponent - 1 - (int)power; /* digits * 5^power against middle * 2^twos */
  if (power >= 0) packbuf_i_big_multiply_pow5(&digits, (int)power);
  else packbuf_i_big_multiply_pow5(&middle, (int)-power);
  if (twos >= 0) packbuf_i_big_shift(&middle, twos);
  else packbuf_i_big_shift(&digits, -twos);
  order = packbuf_i_big_compare(&digits, &middle);
  return order > 0 || (order == 0 && (r.mantissa & 1) != 0);
}

/* Reads digits, point and exponent; the sign is already gone. */
static packbuf_i_decimal packbuf_i_read_decimal(const char *p, const char *end) {
  packbuf_i_decimal d;
  const char *point = NULL;
  int64_t exponent = 0;
  int count = 0;
  d.value = 0;
  d.power = 0;
  d.more = 0;
  while (p < end && (*p == '0' || *p == '.')) { /* leading zeros */
    if (*p == '.') point = p;
    else if (point != NULL) d.power--;
    p++;
  }
  d.first = p;
  for (; p < end; p++) {
    unsigned digit = (unsigned)(*p - '0');
    if (digit > 9) {
      if (*p != '.') break;
      point = p;
    } else if (count < 19) {
      d.value = d.value * 10 + digit;
      d.power -= point != NULL;
      count++;
    } else {
      d.more = 1;
      d.power += point == NULL;
    }
  }
  d.end = p;
  if (p < end) { /* e or E */
    int negative = 0;
    p++;
    if (p < end && (*p == '-' || *p == '+')) negative = *p++ == '-';
    for (; p < end; p++)
      if (exponent < INT64_MAX / 100) exponent = exponent * 10 + (*p - '0');
    d.power += negative ? -exponent : exponent;
  }
  return d;
}

/* The text matches JSON's number grammar. Stores the nearest double (ties to even); 0 when that is an infinity. */
static int packbuf_i_parse_double(const char *text, size_t size, double *value) {
  int negative = size > 0 && text[0] == '-';
  packbuf_i_decimal d = packbuf_i_read_decimal(text + negative, text + size);
  uint64_t bits = 0;
  if (d.value != 0 && d.power > 308) {
    bits = (uint64_t)0x7FF << 52;
  } else if (d.value != 0 && d.power >= -342) { /* below that even 10^19 rounds to zero */
    packbuf_i_rounded r = packbuf_i_scale(d.value, (int)d.power);
    if (d.more && r.up != 2) { /* the true value lies between value and value + 1 */
      packbuf_i_rounded above = packbuf_i_scale(d.value + 1, (int)d.power);
      if (above.up == 2 || packbuf_i_rounded_bits(above) != packbuf_i_rounded_bits(r)) r.up = 2;
    }
    if (r.up == 2) r.up = packbuf_i_exact_up(&d, r);
    bits = packbuf_i_rounded_bits(r);
  }
  size = (size_t)(bits < (uint64_t)0x7FF << 52); /* finite */
  if (negative) bits |= (uint64_t)1 << 63;
  memcpy(value, &bits, 8);
  return (int)size;
}
