/* tools/tagged.c: cells as tagged JSON (section 22 of the spec): printing values, and turning the tags of parsed JSON
 * back into values. Reading has two forms more: {"$file":"path"} for the bytes of a file, and "file" for "data" in
 * $media.
 * May use: packbuf.h, memory, messages. Must not know: where values come from. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- printing ---- */

static void print_base64(text *to, const void *data, size_t size) {
  const unsigned char *p = (const unsigned char *)data;
  char *out;
  if (size / 3 >= SIZE_MAX / 8) fail_memory();
  out = text_room(to, (size / 3 + 1) * 4 + 2);
  *out++ = '"';
  for (; size >= 3; size -= 3, p += 3) {
    unsigned long bits = (unsigned long)p[0] << 16 | (unsigned long)p[1] << 8 | p[2];
    *out++ = base64_digits[bits >> 18];
    *out++ = base64_digits[bits >> 12 & 63];
    *out++ = base64_digits[bits >> 6 & 63];
    *out++ = base64_digits[bits & 63];
  }
  if (size) {
    unsigned long bits = (unsigned long)p[0] << 16 | (size == 2 ? (unsigned long)p[1] << 8 : 0);
    *out++ = base64_digits[bits >> 18];
    *out++ = base64_digits[bits >> 12 & 63];
    *out++ = size == 2 ? base64_digits[bits >> 6 & 63] : '=';
    *out++ = '=';
  }
  *out++ = '"';
  to->size = (size_t)(out - to->data);
}

/* What plain JSON can hold, by the library. */
static void print_plain(text *to, const packbuf_value *value) {
  packbuf_error error;
  char *room = text_room(to, 64);
  size_t size = 0;
  packbuf_status status = packbuf_json_write(value, room, to->capacity - to->size, &size, &error);
  if (status == PACKBUF_CAPACITY) {
    room = text_room(to, size);
    status = packbuf_json_write(value, room, to->capacity - to->size, &size, &error);
  }
  if (status) fail_status(NULL, &error);
  to->size += size;
}

void print_string(text *to, const char *data, size_t size) {
  packbuf_value value;
  text fixed = {NULL, 0, 0};
  size_t i;
  if (!utf8_valid(data, size)) {
    for (i = 0; i < size; i++) {
      if ((unsigned char)data[i] < 0x80) text_add(&fixed, data + i, 1);
      else text_puts(&fixed, "\xef\xbf\xbd");
    }
    data = fixed.data;
    size = fixed.size;
  }
  value = packbuf_string_n(data, size);
  print_plain(to, &value);
  text_free(&fixed);
}

static void print_float(text *to, const packbuf_value *value) {
  uint64_t bits;
  memcpy(&bits, &value->as.f, sizeof bits);
  if ((bits & 0x7fffffffffffffffu) > 0x7ff0000000000000u && bits != 0x7ff8000000000000u)
    text_printf(to, "{\"$float\":\"%016llx\"}", (unsigned long long)bits);
  else print_plain(to, value);
}

static void print_tensor(text *to, const packbuf_tensor *tensor) {
  static const char *const forms[] = {"tensor", "tensor", "array", "tensor", "scalar"};
  char dtype[32];
  uint64_t bytes;
  unsigned i;
  if (!array_bytes(tensor->dtype, tensor->rank, tensor->shape, &bytes) || bytes > SIZE_MAX) fail_memory();
  dtype_word(tensor->dtype, dtype, sizeof dtype);
  text_printf(to, "{\"$tensor\":{\"form\":\"%s\",\"dtype\":\"%s\",\"shape\":[",
              forms[tensor->form <= 4 ? tensor->form : 0], dtype);
  for (i = 0; i < tensor->rank; i++) text_printf(to, i ? ",%llu" : "%llu", (unsigned long long)tensor->shape[i]);
  text_puts(to, "],\"data\":");
  if (big_endian()) {
    unsigned char *copy = (unsigned char *)must_alloc((size_t)bytes);
    if (bytes) memcpy(copy, tensor->data, (size_t)bytes);
    reverse_elements(copy, (size_t)bytes, tensor->dtype);
    print_base64(to, copy, (size_t)bytes);
    free(copy);
  } else {
    print_base64(to, tensor->data, (size_t)bytes);
  }
  text_puts(to, "}}");
}

static void print_media(text *to, const packbuf_media *media) {
  packbuf_value rate = packbuf_float(media->rate);
  text_puts(to, "{\"$media\":{");
  if (media->mime) {
    text_puts(to, "\"mime\":");
    print_string(to, media->mime, media->mime_size);
    text_puts(to, ",");
  }
  if (media->height >= 0) text_printf(to, "\"height\":%lld,", (long long)media->height);
  if (media->width >= 0) text_printf(to, "\"width\":%lld,", (long long)media->width);
  if (media->channels >= 0) text_printf(to, "\"channels\":%lld,", (long long)media->channels);
  if (media->mode) {
    text_puts(to, "\"mode\":");
    print_string(to, media->mode, media->mode_size);
    text_puts(to, ",");
  }
  if (media->has_rate) {
    text_puts(to, "\"rate\":");
    print_float(to, &rate);
    text_puts(to, ",");
  }
  text_puts(to, "\"data\":");
  print_base64(to, media->data, media->size);
  text_puts(to, "}}");
}

static void print_dict(text *to, const packbuf_value *value) {
  const packbuf_entry *entries = value->as.dict.entries;
  size_t count = value->as.dict.count, i;
  int tagged = count == 1 && entries[0].key.kind == PACKBUF_STRING && entries[0].key.as.text.size > 0 &&
               entries[0].key.as.text.data[0] == '$';
  for (i = 0; i < count; i++) tagged |= entries[i].key.kind != PACKBUF_STRING;
  text_puts(to, tagged ? "{\"$dict\":[" : "{");
  for (i = 0; i < count; i++) {
    text_puts(to, i ? (tagged ? ",[" : ",") : (tagged ? "[" : ""));
    print_value(to, &entries[i].key);
    text_puts(to, tagged ? "," : ":");
    print_value(to, &entries[i].value);
    if (tagged) text_puts(to, "]");
  }
  text_puts(to, tagged ? "]}" : "}");
}

static void print_list(text *to, const packbuf_value *value) {
  size_t i;
  text_puts(to, "[");
  for (i = 0; i < value->as.list.count; i++) {
    if (i) text_puts(to, ",");
    print_value(to, &value->as.list.items[i]);
  }
  text_puts(to, "]");
}

void print_value(text *to, const packbuf_value *value) {
  switch (value->kind) {
    case PACKBUF_MISSING: text_puts(to, "{\"$missing\":true}"); break;
    case PACKBUF_FLOAT: print_float(to, value); break;
    case PACKBUF_BYTES:
      text_puts(to, "{\"$bytes\":");
      print_base64(to, value->as.text.data, value->as.text.size);
      text_puts(to, "}");
      break;
    case PACKBUF_MEDIA: print_media(to, value->as.media); break;
    case PACKBUF_OPAQUE:
      text_puts(to, "{\"$opaque\":{\"serializer\":");
      print_string(to, value->as.opaque->serializer, value->as.opaque->serializer_size);
      text_puts(to, ",\"data\":");
      print_base64(to, value->as.opaque->data, value->as.opaque->size);
      text_puts(to, "}}");
      break;
    case PACKBUF_TENSOR: print_tensor(to, value->as.tensor); break;
    case PACKBUF_LIST: print_list(to, value); break;
    case PACKBUF_DICT: print_dict(to, value); break;
    default: print_plain(to, value); break;
  }
}

/* ---- reading ---- */

static int problem(tag_context *context, const char *what) {
  context->problem = what;
  context->problem_path[0] = 0;
  return 0;
}

/* Puts a step in front of the path of the problem, for as much as there is room. */
static int problem_in(tag_context *context, const char *key, size_t size, size_t index) {
  char step[64];
  size_t n, have = strlen(context->problem_path);
  if (key) n = (size_t)snprintf(step, sizeof step, ".%.*s", size < 40 ? (int)size : 40, key);
  else n = (size_t)snprintf(step, sizeof step, "[%zu]", index);
  if (have + n + 1 > sizeof context->problem_path) return 0;
  memmove(context->problem_path + n, context->problem_path, have + 1);
  memcpy(context->problem_path, step, n);
  return 0;
}

static int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int read_base64(tag_context *context, const packbuf_value *value, const void **data, size_t *size) {
  static const char what[] = "data must be a string of padded base64";
  const char *from;
  unsigned char *out;
  size_t n, i, left, at = 0;
  if (!value || value->kind != PACKBUF_STRING || value->as.text.size % 4) return problem(context, what);
  from = value->as.text.data;
  n = value->as.text.size;
  out = (unsigned char *)must_arena(context->arena, n / 4 * 3 + 1, 64);
  for (i = 0; i < n; i += 4) {
    int a = base64_digit(from[i]), b = base64_digit(from[i + 1]), c = base64_digit(from[i + 2]),
        d = base64_digit(from[i + 3]);
    left = i + 4 == n ? (from[i + 2] == '=' && from[i + 3] == '=' ? 1 : from[i + 3] == '=' ? 2 : 3) : 3;
    if (a < 0 || b < 0 || (left > 1 && c < 0) || (left > 2 && d < 0) || (left == 1 && b & 15) || (left == 2 && c & 3))
      return problem(context, what);
    out[at++] = (unsigned char)(a << 2 | b >> 4);
    if (left > 1) out[at++] = (unsigned char)((b & 15) << 4 | c >> 2);
    if (left > 2) out[at++] = (unsigned char)((c & 3) << 6 | d);
  }
  *data = out;
  *size = at;
  return 1;
}

/* A file's real path, when the rules let it be read; else NULL with the problem set. */
static char *allowed_path(tag_context *context, const char *path) {
  text joined = {NULL, 0, 0};
  const char *folder = context->folder ? context->folder : ".";
  char *real, *real_folder;
  size_t size;
  int inside;
  if (path[0] == '/' && !context->allow_paths)
    return problem(context, "$file must stay in the folder of its file (--allow-paths)"), NULL;
  if (path[0] != '/') text_printf(&joined, "%s/", folder);
  text_add(&joined, path, strlen(path) + 1);
  real = realpath(joined.data, NULL);
  text_free(&joined);
  if (!real) return problem(context, "$file: no such file"), NULL;
  if (context->allow_paths) return real;
  real_folder = realpath(folder, NULL);
  size = real_folder ? strlen(real_folder) : 0;
  inside =
      real_folder && (strcmp(real_folder, "/") == 0 || (strncmp(real, real_folder, size) == 0 && real[size] == '/'));
  free(real_folder);
  if (inside) return real;
  free(real);
  return problem(context, "$file must stay in the folder of its file (--allow-paths)"), NULL;
}

static int read_file(tag_context *context, const packbuf_value *value, const void **data, size_t *size) {
  char *name, *path;
  struct stat about;
  unsigned char *memory;
  size_t at = 0;
  int fd;
  if (!value || value->kind != PACKBUF_STRING || memchr(value->as.text.data, 0, value->as.text.size))
    return problem(context, "$file must be a string without NUL");
  name = (char *)must_arena(context->arena, value->as.text.size + 1, 1);
  memcpy(name, value->as.text.data, value->as.text.size);
  name[value->as.text.size] = 0;
  path = allowed_path(context, name);
  if (!path) return 0;
  fd = open(path, O_RDONLY | O_NONBLOCK);
  free(path);
  if (fd < 0) return problem(context, "$file: cannot be opened");
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(fd);
    return problem(context, "$file: is no regular file");
  }
  *size = (size_t)about.st_size;
  memory = (unsigned char *)must_arena(context->arena, *size, 64);
  while (at < *size) {
    ssize_t n = read(fd, memory + at, *size - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    at += (size_t)n;
  }
  close(fd);
  *data = memory;
  return at == *size ? 1 : problem(context, "$file: cannot be read");
}

static int read_number(const packbuf_value *value, uint64_t *number) {
  if (value && value->kind == PACKBUF_INT && value->as.i >= 0) return *number = (uint64_t)value->as.i, 1;
  if (value && value->kind == PACKBUF_UINT) return *number = value->as.u, 1;
  return 0;
}

static int equals(const packbuf_value *value, const char *word) {
  return value && value->kind == PACKBUF_STRING && value->as.text.size == strlen(word) &&
         memcmp(value->as.text.data, word, strlen(word)) == 0;
}

static int read_tensor(tag_context *context, const packbuf_value *value, packbuf_value *out) {
  const packbuf_value *form = packbuf_dict_get(value, "form"), *dtype = packbuf_dict_get(value, "dtype"),
                      *shape = packbuf_dict_get(value, "shape");
  packbuf_tensor *tensor = (packbuf_tensor *)must_arena(context->arena, sizeof *tensor, sizeof(void *));
  uint64_t *dims = (uint64_t *)must_arena(context->arena, sizeof(uint64_t) * PACKBUF_MAX_RANK, 8), bytes;
  char name[32];
  size_t i, size;
  memset(tensor, 0, sizeof *tensor);
  if (value->as.dict.count != 4) return problem(context, "$tensor has the keys form, dtype, shape and data");
  if (equals(form, "tensor")) tensor->form = PACKBUF_FORM_TENSOR;
  else if (equals(form, "array")) tensor->form = PACKBUF_FORM_ARRAY;
  else if (equals(form, "scalar")) tensor->form = PACKBUF_FORM_SCALAR;
  else return problem(context, "$tensor: form is tensor, array or scalar");
  if (!dtype || dtype->kind != PACKBUF_STRING || dtype->as.text.size >= sizeof name)
    return problem(context, "$tensor: unknown dtype");
  memcpy(name, dtype->as.text.data, dtype->as.text.size);
  name[dtype->as.text.size] = 0;
  if (strlen(name) != dtype->as.text.size || !packbuf_dtype_parse(name, &tensor->dtype))
    return problem(context, "$tensor: unknown dtype");
  if (!shape || shape->kind != PACKBUF_LIST || shape->as.list.count > PACKBUF_MAX_RANK ||
      (tensor->form == PACKBUF_FORM_SCALAR && shape->as.list.count))
    return problem(context, "$tensor: shape is a list of at most 8 numbers, of none for a scalar");
  tensor->rank = (uint8_t)shape->as.list.count;
  for (i = 0; i < shape->as.list.count; i++)
    if (!read_number(&shape->as.list.items[i], &dims[i]))
      return problem(context, "$tensor: shape is a list of at most 8 numbers, of none for a scalar");
  tensor->shape = dims;
  if (!read_base64(context, packbuf_dict_get(value, "data"), &tensor->data, &size)) return 0;
  if (!array_bytes(tensor->dtype, tensor->rank, dims, &bytes) || bytes != size)
    return problem(context, "$tensor: data has another length than shape and dtype");
  if (big_endian()) {
    unsigned char *copy = (unsigned char *)must_arena(context->arena, size, 64);
    memcpy(copy, tensor->data, size);
    reverse_elements(copy, size, tensor->dtype);
    tensor->data = copy;
  }
  *out = packbuf_tensor_value(tensor);
  return 1;
}

/* One attribute, or data or file, of $media. */
static int read_attribute(tag_context *context, packbuf_media *media, const packbuf_entry *entry) {
  const packbuf_value *value = &entry->value;
  int64_t *number = equals(&entry->key, "height")     ? &media->height
                    : equals(&entry->key, "width")    ? &media->width
                    : equals(&entry->key, "channels") ? &media->channels
                                                      : NULL;
  if (number) {
    if (value->kind != PACKBUF_INT || value->as.i < 0)
      return problem(context, "$media: height, width and channels are numbers of pixels");
    *number = value->as.i;
    return 1;
  }
  if (equals(&entry->key, "mime") || equals(&entry->key, "mode")) {
    if (value->kind != PACKBUF_STRING) return problem(context, "$media: mime and mode are strings");
    *(equals(&entry->key, "mime") ? &media->mime : &media->mode) = value->as.text.data;
    *(equals(&entry->key, "mime") ? &media->mime_size : &media->mode_size) = value->as.text.size;
    return 1;
  }
  if (equals(&entry->key, "rate")) {
    packbuf_value rate;
    if (!read_tags(context, value, &rate)) return 0;
    if (rate.kind != PACKBUF_FLOAT && rate.kind != PACKBUF_INT) return problem(context, "$media: rate is a number");
    media->has_rate = 1;
    media->rate = rate.kind == PACKBUF_FLOAT ? rate.as.f : (double)rate.as.i;
    return 1;
  }
  if (equals(&entry->key, "data")) return read_base64(context, value, &media->data, &media->size);
  if (equals(&entry->key, "file")) return read_file(context, value, &media->data, &media->size);
  return problem(context, "$media has the keys mime, height, width, channels, mode, rate, and data or file");
}

static int read_media(tag_context *context, const packbuf_value *value, packbuf_value *out) {
  packbuf_media *media = (packbuf_media *)must_arena(context->arena, sizeof *media, sizeof(void *));
  size_t i;
  *media = packbuf_media_of("", 0, NULL);
  if (!packbuf_dict_get(value, "data") == !packbuf_dict_get(value, "file"))
    return problem(context, "$media has either data or file");
  for (i = 0; i < value->as.dict.count; i++)
    if (!read_attribute(context, media, &value->as.dict.entries[i])) return 0;
  *out = packbuf_media_value(media);
  return 1;
}

static int read_opaque(tag_context *context, const packbuf_value *value, packbuf_value *out) {
  const packbuf_value *serializer = packbuf_dict_get(value, "serializer");
  packbuf_opaque *opaque = (packbuf_opaque *)must_arena(context->arena, sizeof *opaque, sizeof(void *));
  if (value->as.dict.count != 2 || !serializer || serializer->kind != PACKBUF_STRING)
    return problem(context, "$opaque has the keys serializer and data");
  opaque->serializer = serializer->as.text.data;
  opaque->serializer_size = serializer->as.text.size;
  if (!read_base64(context, packbuf_dict_get(value, "data"), &opaque->data, &opaque->size)) return 0;
  *out = packbuf_opaque_value(opaque);
  return 1;
}

static int read_float(tag_context *context, const packbuf_value *value, packbuf_value *out) {
  uint64_t bits = 0;
  double number;
  size_t i;
  if (value->kind != PACKBUF_STRING || value->as.text.size != 16)
    return problem(context, "$float is a string of 16 hexadecimal digits");
  for (i = 0; i < 16; i++) {
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *found = (const char *)memchr(digits, value->as.text.data[i], 32);
    if (!found) return problem(context, "$float is a string of 16 hexadecimal digits");
    bits = bits << 4 | ((uint64_t)(found - digits) & 15);
  }
  memcpy(&number, &bits, sizeof number);
  *out = packbuf_float(number);
  return 1;
}

/* [[key, value], ...]. Two equal keys are refused: their MessagePack texts are equal. */
static int read_pairs(tag_context *context, const packbuf_value *value, packbuf_value *out) {
  static const char what[] =
      "$dict is a list of [key, value] with differing keys that are null, bool, integer, float, string or bytes";
  size_t count = value->kind == PACKBUF_LIST ? value->as.list.count : 0, i, size = 0;
  packbuf_entry *entries = (packbuf_entry *)must_arena(context->arena, count * sizeof *entries, sizeof(void *));
  name_set keys = {NULL, 0, 0};
  int good = value->kind == PACKBUF_LIST;
  for (i = 0; good && i < count; i++) {
    const packbuf_value *item = &value->as.list.items[i];
    char *key;
    good = 0;
    if (item->kind != PACKBUF_LIST || item->as.list.count != 2) break;
    if (!read_tags(context, &item->as.list.items[0], &entries[i].key)) return name_set_free(&keys), 0;
    if (!read_tags(context, &item->as.list.items[1], &entries[i].value))
      return name_set_free(&keys), problem_in(context, NULL, 0, i);
    if (entries[i].key.kind > PACKBUF_BYTES || entries[i].key.kind == PACKBUF_MISSING ||
        entries[i].value.kind == PACKBUF_MISSING)
      break;
    if (packbuf_msgpack_write(&entries[i].key, NULL, 0, &size, NULL)) break;
    key = (char *)must_arena(context->arena, size, 1);
    if (packbuf_msgpack_write(&entries[i].key, key, size, &size, NULL)) break;
    good = !name_set_add(&keys, key, size, "");
  }
  name_set_free(&keys);
  if (!good) return problem(context, what);
  *out = packbuf_dict(entries, count);
  return 1;
}

/* A dict with one key that starts with `$`: 1 when it was a tag, 0 for a problem, -1 when it is an ordinary dict. */
static int read_tag(tag_context *context, const packbuf_entry *entry, packbuf_value *out) {
  const packbuf_value *key = &entry->key, *value = &entry->value;
  const void *data;
  size_t size;
  if (equals(key, "$bytes") || equals(key, "$file")) {
    if (!(equals(key, "$file") ? read_file(context, value, &data, &size) : read_base64(context, value, &data, &size)))
      return 0;
    *out = packbuf_bytes(data, size);
    return 1;
  }
  if (equals(key, "$float")) return read_float(context, value, out);
  if (equals(key, "$dict")) return read_pairs(context, value, out);
  if (equals(key, "$missing")) {
    if (value->kind != PACKBUF_BOOL || !value->as.boolean) return problem(context, "$missing is true");
    *out = packbuf_missing();
    return 1;
  }
  if (equals(key, "$tensor"))
    return value->kind == PACKBUF_DICT ? read_tensor(context, value, out) : problem(context, "$tensor is a dict");
  if (equals(key, "$media"))
    return value->kind == PACKBUF_DICT ? read_media(context, value, out) : problem(context, "$media is a dict");
  if (equals(key, "$opaque"))
    return value->kind == PACKBUF_DICT ? read_opaque(context, value, out) : problem(context, "$opaque is a dict");
  return -1;
}

static int read_dict(tag_context *context, const packbuf_value *value, packbuf_value *out) {
  size_t count = value->as.dict.count, i, kept = 0;
  packbuf_entry *entries = (packbuf_entry *)must_arena(context->arena, count * sizeof *entries, sizeof(void *));
  for (i = 0; i < count; i++) {
    const packbuf_entry *from = &value->as.dict.entries[i];
    entries[kept].key = from->key;
    if (!read_tags(context, &from->value, &entries[kept].value))
      return problem_in(context, from->key.as.text.data, from->key.as.text.size, 0);
    if (entries[kept].value.kind != PACKBUF_MISSING) kept++;
  }
  *out = packbuf_dict(entries, kept);
  return 1;
}

int read_tags(tag_context *context, const packbuf_value *value, packbuf_value *out) {
  *out = *value;
  if (context->no_tags) return 1;
  if (value->kind == PACKBUF_LIST) {
    size_t i, count = value->as.list.count;
    packbuf_value *items;
    for (i = 0; i < count && value->as.list.items[i].kind < PACKBUF_LIST; i++) {}
    if (i == count) return 1;
    items = (packbuf_value *)must_arena(context->arena, count * sizeof *items, sizeof(void *));
    for (i = 0; i < count; i++) {
      if (!read_tags(context, &value->as.list.items[i], &items[i])) return problem_in(context, NULL, 0, i);
      if (items[i].kind == PACKBUF_MISSING)
        return problem(context, "an item of a list cannot be $missing"), problem_in(context, NULL, 0, i);
    }
    *out = packbuf_list(items, count);
  } else if (value->kind == PACKBUF_DICT) {
    const packbuf_entry *first = value->as.dict.entries;
    if (value->as.dict.count == 1 && first->key.as.text.size && first->key.as.text.data[0] == '$') {
      int done = read_tag(context, first, out);
      if (done >= 0) return done;
    }
    return read_dict(context, value, out);
  }
  return 1;
}
