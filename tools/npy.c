/* tools/npy.c: numpy's .npy files, versions 1 to 3: a header that is a Python dict literal, then the elements. Reading
 * takes hostile bytes; writing gives the bytes that numpy.save gives for a C-contiguous little-endian array.
 * May use: packbuf.h, memory, messages. Must not know: where the bytes come from. */
#include "tool.h"

enum { NPY_HEADER_MAX = 1 << 20 };

typedef struct header {
  const char *file, *at, *end;
  char descr[64];
  int has_descr, has_order, has_shape, fortran;
  unsigned rank;
  uint64_t shape[PACKBUF_MAX_RANK];
} header;

int array_bytes(packbuf_dtype dtype, unsigned rank, const uint64_t *shape, uint64_t *bytes) {
  const uint64_t most = (uint64_t)1 << 62;
  uint64_t total = dtype.bits / 8u, zero = 0;
  unsigned i;
  *bytes = 0;
  for (i = 0; i < rank; i++) {
    if (!shape[i]) {
      zero = 1;
      continue;
    }
    if (total > most / shape[i]) return 0;
    total *= shape[i];
  }
  *bytes = zero ? 0 : total;
  return 1;
}

int big_endian(void) {
  const uint16_t one = 1;
  unsigned char first;
  memcpy(&first, &one, 1);
  return first == 0;
}

void reverse_elements(void *data, size_t bytes, packbuf_dtype dtype) {
  size_t size = dtype.bits / (dtype.code == PACKBUF_DTYPE_COMPLEX ? 16u : 8u), at, i;
  unsigned char *p = (unsigned char *)data;
  for (at = 0; size > 1 && at + size <= bytes; at += size)
    for (i = 0; i < size / 2; i++) {
      unsigned char c = p[at + i];
      p[at + i] = p[at + size - 1 - i];
      p[at + size - 1 - i] = c;
    }
}

array *arrays_add(arrays *list) {
  array *item = (array *)must_alloc(sizeof *item);
  memset(item, 0, sizeof *item);
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? list->capacity * 2 : 16;
    list->items = (array **)must_resize(list->items, list->capacity * sizeof *list->items);
  }
  list->items[list->count++] = item;
  return item;
}

/* ---- the header ---- */

static void skip_space(header *h) {
  while (h->at < h->end && (*h->at == ' ' || *h->at == '\n' || *h->at == '\t' || *h->at == '\r')) h->at++;
}

static int take(header *h, char c) {
  skip_space(h);
  if (h->at >= h->end || *h->at != c) return 0;
  h->at++;
  return 1;
}

static int take_word(header *h, const char *word) {
  size_t size = strlen(word);
  skip_space(h);
  if ((size_t)(h->end - h->at) < size || memcmp(h->at, word, size) != 0) return 0;
  h->at += size;
  return 1;
}

static void bad_header(const header *h) TOOL_NORETURN;
static void bad_header(const header *h) {
  fail(h->file, "the .npy header is no dict of descr, fortran_order and shape");
}

/* A quoted Python string without escapes. */
static void take_string(header *h, char *to, size_t size) {
  char quote;
  size_t n = 0;
  skip_space(h);
  if (h->at >= h->end || (*h->at != '\'' && *h->at != '"')) bad_header(h);
  quote = *h->at++;
  while (h->at < h->end && *h->at != quote) {
    if (n + 1 >= size || *h->at == '\\' || *h->at == '\n') bad_header(h);
    to[n++] = *h->at++;
  }
  if (!take(h, quote)) bad_header(h);
  to[n] = 0;
}

static void take_shape(header *h) {
  if (!take(h, '(')) bad_header(h);
  while (!take(h, ')')) {
    uint64_t number = 0;
    const char *start;
    skip_space(h);
    for (start = h->at; h->at < h->end && *h->at >= '0' && *h->at <= '9'; h->at++) {
      if (number > (UINT64_MAX >> 2) / 10) fail(h->file, "the array's shape is too large");
      number = number * 10 + (uint64_t)(*h->at - '0');
    }
    if (h->at == start) bad_header(h);
    if (h->rank == PACKBUF_MAX_RANK) fail(h->file, "the array has more than %d dimensions", PACKBUF_MAX_RANK);
    h->shape[h->rank++] = number;
    if (h->at < h->end && *h->at == 'L') h->at++; /* Python 2 */
    if (!take(h, ',')) {
      if (!take(h, ')')) bad_header(h);
      return;
    }
  }
}

static void take_descr(header *h) {
  skip_space(h);
  if (h->at < h->end && (*h->at == '[' || *h->at == '('))
    fail(h->file, "holds a structured dtype (records), which is no field: save its parts as arrays of their own");
  take_string(h, h->descr, sizeof h->descr);
}

static void read_header(header *h) {
  char key[32];
  if (!take(h, '{')) bad_header(h);
  while (!take(h, '}')) {
    take_string(h, key, sizeof key);
    if (!take(h, ':')) bad_header(h);
    if (strcmp(key, "descr") == 0 && !h->has_descr++) take_descr(h);
    else if (strcmp(key, "shape") == 0 && !h->has_shape++) take_shape(h);
    else if (strcmp(key, "fortran_order") == 0 && !h->has_order++) {
      h->fortran = take_word(h, "True");
      if (!h->fortran && !take_word(h, "False")) bad_header(h);
    } else bad_header(h);
    if (!take(h, ',')) {
      if (!take(h, '}')) bad_header(h);
      break;
    }
  }
  skip_space(h);
  if (h->at != h->end || !h->has_descr || !h->has_shape || !h->has_order) bad_header(h);
}

/* ---- dtypes ---- */

int npy_unit(const char *unit, size_t size) {
  static const char *const units[] = {"s", "ms", "us", "ns", "D"};
  size_t i;
  for (i = 0; i < sizeof units / sizeof *units; i++)
    if (strlen(units[i]) == size && memcmp(units[i], unit, size) == 0) return 1;
  return 0;
}

static void refuse_descr(const char *file, const char *descr) TOOL_NORETURN;
static void refuse_descr(const char *file, const char *descr) {
  const char *kind = descr + (strchr("<>|=", descr[0]) && descr[0] ? 1 : 0);
  switch (*kind) {
    case 'O':
      fail(file, "holds Python objects (dtype %s), which only unpickling could read: packbuf never runs pickle", descr);
    case 'U':
    case 'S':
    case 'a': fail(file, "holds fixed-width strings (dtype %s): give them as a field of a .jsonl file", descr);
    case 'V': fail(file, "holds raw bytes without a type (dtype %s)", descr);
    case 'M':
      fail(file, "has a datetime unit that packbuf's timestamps lack (dtype %s): they have D, s, ms, us and ns", descr);
    case 'm': fail(file, "holds time differences (dtype %s): convert them to integers", descr);
    default: fail(file, "has a dtype that packbuf lacks: %s", descr);
  }
}

/* descr to dtype; *swapped when the elements are in the other byte order. */
static packbuf_dtype parse_descr(const char *file, const char *descr, const char **unit, int *swapped,
                                 packbuf_arena *arena) {
  static const struct {
    char kind;
    packbuf_dtype_code code;
    unsigned sizes; /* of elements: bit n for n bytes */
  } kinds[] = {{'b', PACKBUF_DTYPE_BOOL, 1u << 1},    {'i', PACKBUF_DTYPE_INT, 0x116},
               {'u', PACKBUF_DTYPE_UINT, 0x116},      {'f', PACKBUF_DTYPE_FLOAT, 0x114},
               {'c', PACKBUF_DTYPE_COMPLEX, 0x10100}, {'M', PACKBUF_DTYPE_INT, 0x100}};
  unsigned long size;
  size_t i, n;
  char *end, *copy;
  if (!descr[0] || !strchr("<>|=", descr[0]) || !descr[1] || descr[2] < '1' || descr[2] > '9')
    refuse_descr(file, descr);
  size = strtoul(descr + 2, &end, 10);
  if (size > 16) refuse_descr(file, descr);
  for (i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (kinds[i].kind == descr[1] && kinds[i].sizes >> size & 1) break;
  if (i == sizeof kinds / sizeof *kinds) refuse_descr(file, descr);
  n = strlen(end);
  *unit = NULL;
  if (descr[1] == 'M') {
    if (n < 3 || end[0] != '[' || end[n - 1] != ']' || !npy_unit(end + 1, n - 2)) refuse_descr(file, descr);
    copy = (char *)must_arena(arena, n, 1);
    memcpy(copy, end + 1, n - 2);
    copy[n - 2] = 0;
    *unit = copy;
  } else if (n) {
    refuse_descr(file, descr);
  }
  if (descr[0] == '|' && size > 1) refuse_descr(file, descr);
  *swapped = size > 1 && (descr[0] == '<' ? big_endian() : descr[0] == '>' && !big_endian());
  return packbuf_dtype_of(kinds[i].code, (unsigned)size * 8);
}

const void *swapped_copy(const uint8_t *data, uint64_t bytes, packbuf_dtype dtype, packbuf_arena *arena) {
  uint8_t *copy = (uint8_t *)must_arena(arena, (size_t)bytes, 64);
  memcpy(copy, data, (size_t)bytes);
  reverse_elements(copy, (size_t)bytes, dtype);
  return copy;
}

/* The length of prefix and header, from the magic and the length field. */
static uint64_t header_range(const char *file, const uint8_t *data, uint64_t size, uint64_t *start) {
  uint64_t length;
  if (size < 10 || memcmp(data, "\x93NUMPY", 6) != 0) fail(file, "is no .npy file");
  if (data[6] < 1 || data[6] > 3)
    fail(file, "is an .npy file of version %u.%u: versions 1 to 3 are known", (unsigned)data[6], (unsigned)data[7]);
  length = (uint64_t)data[8] | (uint64_t)data[9] << 8;
  *start = 10;
  if (data[6] > 1) {
    if (size < 12) fail(file, "the .npy header ends too early");
    length |= (uint64_t)data[10] << 16 | (uint64_t)data[11] << 24;
    *start = 12;
  }
  if (length > NPY_HEADER_MAX) fail(file, "the .npy header is longer than %d bytes", NPY_HEADER_MAX);
  if (length > size - *start) fail(file, "the .npy header ends too early");
  return *start + length;
}

void npy_read(const char *file, const uint8_t *data, uint64_t size, array *to, packbuf_arena *arena) {
  header h;
  uint64_t start, end = header_range(file, data, size, &start), bytes;
  int swapped;
  unsigned i;
  memset(&h, 0, sizeof h);
  h.file = file;
  h.at = (const char *)data + start;
  h.end = (const char *)data + end;
  read_header(&h);
  to->file = file;
  to->tensor.dtype = parse_descr(file, h.descr, &to->unit, &swapped, arena);
  if (!array_bytes(to->tensor.dtype, h.rank, h.shape, &bytes)) fail(file, "the array's shape is too large");
  if (bytes > size - end)
    fail(file, "ends too early: the array needs %llu bytes, there are %llu", (unsigned long long)bytes,
         (unsigned long long)(size - end));
  if (bytes < size - end) fail(file, "has %llu bytes after the array", (unsigned long long)(size - end - bytes));
  memcpy(to->shape, h.shape, sizeof to->shape);
  to->tensor.data = swapped && bytes ? swapped_copy(data + end, bytes, to->tensor.dtype, arena) : data + end;
  to->tensor.rank = (uint8_t)h.rank;
  to->tensor.form = PACKBUF_FORM_ARRAY;
  to->tensor.shape = to->shape;
  if (h.fortran && h.rank > 1 && bytes) {
    to->strides[0] = to->tensor.dtype.bits / 8;
    for (i = 1; i < h.rank; i++) to->strides[i] = to->strides[i - 1] * (int64_t)h.shape[i - 1];
    to->tensor.strides = to->strides;
  }
}

/* ---- writing ---- */

packbuf_dtype npy_dtype(packbuf_dtype dtype) {
  switch (dtype.code) {
    case PACKBUF_DTYPE_BFLOAT:
    case PACKBUF_DTYPE_FLOAT8_E4M3FN:
    case PACKBUF_DTYPE_FLOAT8_E5M2: return packbuf_dtype_of(PACKBUF_DTYPE_UINT, dtype.bits);
    default: return dtype;
  }
}

void npy_header(text *to, packbuf_dtype dtype, const char *unit, unsigned rank, const uint64_t *shape) {
  char kind = dtype.code == PACKBUF_DTYPE_BOOL    ? 'b'
              : dtype.code == PACKBUF_DTYPE_INT   ? 'i'
              : dtype.code == PACKBUF_DTYPE_UINT  ? 'u'
              : dtype.code == PACKBUF_DTYPE_FLOAT ? 'f'
                                                  : 'c';
  size_t before = to->size, length, padding;
  unsigned i, digits;
  text_add(to, "\x93NUMPY\x01\0\0\0", 10);
  if (unit) text_printf(to, "{'descr': '<M8[%s]', 'fortran_order': False, 'shape': (", unit);
  else
    text_printf(to, "{'descr': '%c%c%u', 'fortran_order': False, 'shape': (", dtype.bits == 8 ? '|' : '<', kind,
                (unsigned)dtype.bits / 8);
  for (i = 0; i < rank; i++) text_printf(to, i ? ", %llu" : "%llu", (unsigned long long)shape[i]);
  text_puts(to, rank == 1 ? ",), }" : "), }");
  if (rank) { /* numpy leaves room for the first dimension to grow */
    char number[24];
    digits = (unsigned)snprintf(number, sizeof number, "%llu", (unsigned long long)shape[0]);
    for (; digits < 21; digits++) text_puts(to, " ");
  }
  length = to->size - before + 1;
  for (padding = 64 - length % 64; padding; padding--) text_puts(to, " ");
  text_puts(to, "\n");
  length = to->size - before - 10;
  to->data[before + 8] = (char)(length & 0xff);
  to->data[before + 9] = (char)(length >> 8);
}
