/* tools/safetensors.c: .safetensors files: a u64 length, a JSON header of names, dtypes, shapes and offsets, then the
 * elements. As the format asks: the header is at most 100 MB, tensors lie side by side without holes or overlaps and
 * end with the file.
 * May use: packbuf.h, memory, messages. Must not know: what becomes of the arrays. */
#include "tool.h"

static int is_word(const packbuf_value *value, const char *word) {
  return value->kind == PACKBUF_STRING && value->as.text.size == strlen(word) &&
         memcmp(value->as.text.data, word, strlen(word)) == 0;
}

/* A string of the header as a C string in the arena. */
static const char *c_string(const char *file, const packbuf_value *value, packbuf_arena *arena) {
  char *copy;
  if (value->kind != PACKBUF_STRING || memchr(value->as.text.data, 0, value->as.text.size))
    fail(file, "the header has a name or metadata that is no string without NUL");
  copy = (char *)must_arena(arena, value->as.text.size + 1, 1);
  memcpy(copy, value->as.text.data, value->as.text.size);
  copy[value->as.text.size] = 0;
  return copy;
}

static packbuf_dtype read_dtype(const char *file, const char *name, const packbuf_value *value, packbuf_arena *arena) {
  static const struct {
    const char *word;
    packbuf_dtype_code code;
    unsigned bits;
  } dtypes[] = {{"BOOL", PACKBUF_DTYPE_BOOL, 8},
                {"I8", PACKBUF_DTYPE_INT, 8},
                {"I16", PACKBUF_DTYPE_INT, 16},
                {"I32", PACKBUF_DTYPE_INT, 32},
                {"I64", PACKBUF_DTYPE_INT, 64},
                {"U8", PACKBUF_DTYPE_UINT, 8},
                {"U16", PACKBUF_DTYPE_UINT, 16},
                {"U32", PACKBUF_DTYPE_UINT, 32},
                {"U64", PACKBUF_DTYPE_UINT, 64},
                {"F16", PACKBUF_DTYPE_FLOAT, 16},
                {"F32", PACKBUF_DTYPE_FLOAT, 32},
                {"F64", PACKBUF_DTYPE_FLOAT, 64},
                {"BF16", PACKBUF_DTYPE_BFLOAT, 16},
                {"F8_E4M3", PACKBUF_DTYPE_FLOAT8_E4M3FN, 8},
                {"F8_E5M2", PACKBUF_DTYPE_FLOAT8_E5M2, 8},
                {"C64", PACKBUF_DTYPE_COMPLEX, 64}};
  size_t i;
  if (!value || value->kind != PACKBUF_STRING) fail(file, "tensor %s: dtype is no string", name);
  for (i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (is_word(value, dtypes[i].word)) return packbuf_dtype_of(dtypes[i].code, dtypes[i].bits);
  fail(file, "tensor %s has a dtype that packbuf lacks: %s", name, c_string(file, value, arena));
}

static uint64_t read_size(const char *file, const char *name, const packbuf_value *value) {
  if (value->kind != PACKBUF_INT || value->as.i < 0)
    fail(file, "tensor %s: shape and data_offsets are lists of numbers", name);
  return (uint64_t)value->as.i;
}

typedef struct extent {
  uint64_t begin, end;
  const char *name;
} extent;

static int by_begin(const void *a, const void *b) {
  const extent *x = (const extent *)a, *y = (const extent *)b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

static extent read_tensor(const char *file, const char *name, const packbuf_value *about, const uint8_t *data,
                          uint64_t size, array *to, packbuf_arena *arena) {
  const packbuf_value *shape, *offsets;
  extent where = {0, 0, name};
  uint64_t bytes;
  size_t i;
  if (about->kind != PACKBUF_DICT) fail(file, "tensor %s is no dict", name);
  shape = packbuf_dict_get(about, "shape");
  offsets = packbuf_dict_get(about, "data_offsets");
  if (!shape || shape->kind != PACKBUF_LIST || !offsets || offsets->kind != PACKBUF_LIST ||
      offsets->as.list.count != 2 || about->as.dict.count != 3)
    fail(file, "tensor %s has not the keys dtype, shape and data_offsets", name);
  if (shape->as.list.count > PACKBUF_MAX_RANK)
    fail(file, "tensor %s has more than %d dimensions", name, PACKBUF_MAX_RANK);
  to->name = name;
  to->file = file;
  to->tensor.dtype = read_dtype(file, name, packbuf_dict_get(about, "dtype"), arena);
  to->tensor.rank = (uint8_t)shape->as.list.count;
  for (i = 0; i < shape->as.list.count; i++) to->shape[i] = read_size(file, name, &shape->as.list.items[i]);
  where.begin = read_size(file, name, &offsets->as.list.items[0]);
  where.end = read_size(file, name, &offsets->as.list.items[1]);
  if (where.begin > where.end || where.end > size) fail(file, "tensor %s: data_offsets lie outside the file", name);
  if (!array_bytes(to->tensor.dtype, to->tensor.rank, to->shape, &bytes) || bytes != where.end - where.begin)
    fail(file, "tensor %s: data_offsets do not fit dtype and shape", name);
  to->tensor.data =
      big_endian() && bytes ? swapped_copy(data + where.begin, bytes, to->tensor.dtype, arena) : data + where.begin;
  to->tensor.form = PACKBUF_FORM_TENSOR;
  to->tensor.shape = to->shape;
  return where;
}

static void read_metadata(const char *file, const packbuf_value *value, pairs *metadata, packbuf_arena *arena) {
  size_t i;
  if (value->kind != PACKBUF_DICT) fail(file, "__metadata__ is no dict");
  for (i = 0; i < value->as.dict.count; i++)
    pairs_add(metadata, c_string(file, &value->as.dict.entries[i].key, arena),
              c_string(file, &value->as.dict.entries[i].value, arena), file);
}

void safetensors_read(const source *from, arrays *list, pairs *metadata, packbuf_arena *arena) {
  const char *file = from->name;
  uint64_t length = 0, at = 0;
  packbuf_value head;
  packbuf_error error;
  extent *extents;
  size_t i, count = 0;
  for (i = 0; i < 8 && from->size >= 8; i++) length |= (uint64_t)from->data[i] << 8 * i;
  if (from->size < 8 || length > from->size - 8) fail(file, "is no .safetensors file: the header ends beyond the file");
  if (length > 100000000) fail(file, "the header is larger than 100 MB");
  if (!length || from->data[8] != '{') fail(file, "is no .safetensors file: the header does not start with {");
  if (packbuf_json_parse((const char *)from->data + 8, (size_t)length, 8, arena, &head, &error)) {
    if (error.offset != PACKBUF_NOWHERE) error.offset += 8;
    fail_status(file, &error);
  }
  if (head.kind != PACKBUF_DICT) fail(file, "the header is no dict");
  extents = (extent *)must_arena(arena, head.as.dict.count * sizeof *extents, sizeof(void *));
  for (i = 0; i < head.as.dict.count; i++) {
    const packbuf_entry *entry = &head.as.dict.entries[i];
    if (is_word(&entry->key, "__metadata__")) read_metadata(file, &entry->value, metadata, arena);
    else
      extents[count++] = read_tensor(file, c_string(file, &entry->key, arena), &entry->value, from->data + 8 + length,
                                     from->size - 8 - length, arrays_add(list), arena);
  }
  qsort(extents, count, sizeof *extents, by_begin);
  for (i = 0; i < count; i++) {
    if (extents[i].begin != at)
      fail(file, "tensor %s: its bytes overlap others or leave a hole before them", extents[i].name);
    at = extents[i].end;
  }
  if (at != from->size - 8 - length)
    fail(file, "%llu bytes follow the tensors", (unsigned long long)(from->size - 8 - length - at));
}
