/* Values for tests from a short notation much like Python's; test-only, include after packbuf.h.
 *
 *     None True False Missing
 *     12 -3 18446744073709551616 0.5 -0.0 nan inf     nan1: a NaN with a payload
 *     "text" b"bytes"                                 escapes \\ \" \xHH
 *     "x"#100                                         the text 100 times
 *     [a, b] (a, b) {"k": v}                          in lists item*9: 9 times
 *     tensor:int64(2,3) array:int32() scalar:float32  elements are zero
 *     media media:image/png opaque:pickle
 *     deep(3) deepl(3) keys(2)                        {"a":{"a":{"a":1}}}, [[[1]]], {"k0":0,"k1":1}
 *
 * A notation that is wrong ends the program. */
#ifndef VALUES_H
#define VALUES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct values_reader {
  const char *at;
  packbuf_arena *arena;
} values_reader;

static packbuf_value values_one(values_reader *v);

static void values_wrong(const values_reader *v) {
  printf("Bail out! bad notation at: %.40s\n", v->at);
  exit(2);
}

static void *values_new(values_reader *v, size_t count, size_t size) {
  void *memory = packbuf_arena_alloc(v->arena, count * size + 1, 16);
  if (!memory) values_wrong(v);
  return memory;
}

static void values_space(values_reader *v) {
  while (*v->at == ' ' || *v->at == ',') v->at++;
}

static int values_take(values_reader *v, const char *word) {
  size_t size = strlen(word);
  if (strncmp(v->at, word, size) != 0) return 0;
  v->at += size;
  return 1;
}

static size_t values_count(values_reader *v) {
  char *end;
  size_t n = (size_t)strtoull(v->at, &end, 10);
  if (end == v->at) values_wrong(v);
  v->at = end;
  return n;
}

static packbuf_value values_text(values_reader *v, int bytes) {
  size_t size = 0, times = 1;
  char *text = (char *)values_new(v, strlen(v->at), 1), *all;
  for (v->at++; *v->at != '"'; v->at++) {
    unsigned code = 0;
    if (!*v->at) values_wrong(v);
    if (*v->at == '\\' && v->at[1] == 'x' && sscanf(v->at + 2, "%2x", &code) == 1) {
      text[size++] = (char)code;
      v->at += 3;
    } else {
      if (*v->at == '\\') v->at++;
      text[size++] = *v->at;
    }
  }
  v->at++;
  if (values_take(v, "#")) times = values_count(v);
  all = text;
  if (times != 1) {
    all = (char *)values_new(v, size * times, 1);
    for (size_t i = 0; i < times; i++) memcpy(all + i * size, text, size);
  }
  return bytes ? packbuf_bytes(all, size * times) : packbuf_string_n(all, size * times);
}

static packbuf_value values_list(values_reader *v, char close) {
  size_t count = 0, room = 16;
  packbuf_value *items = (packbuf_value *)malloc(room * sizeof *items), *kept;
  for (values_space(v); *v->at != close; values_space(v)) {
    packbuf_value item = values_one(v);
    size_t times = values_take(v, "*") ? values_count(v) : 1;
    if (count + times > room) items = (packbuf_value *)realloc(items, (room = (count + times) * 2) * sizeof *items);
    while (times--) items[count++] = item;
  }
  v->at++;
  kept = (packbuf_value *)values_new(v, count, sizeof *items);
  memcpy(kept, items, count * sizeof *items);
  free(items);
  return packbuf_list(kept, count);
}

static packbuf_value values_dict(values_reader *v) {
  size_t count = 0, room = 16;
  packbuf_entry *entries = (packbuf_entry *)malloc(room * sizeof *entries), *kept;
  for (values_space(v); *v->at != '}'; values_space(v)) {
    if (count == room) entries = (packbuf_entry *)realloc(entries, (room *= 2) * sizeof *entries);
    entries[count].key = values_one(v);
    if (!values_take(v, ":")) values_wrong(v);
    values_space(v);
    entries[count++].value = values_one(v);
  }
  v->at++;
  kept = (packbuf_entry *)values_new(v, count, sizeof *entries);
  memcpy(kept, entries, count * sizeof *entries);
  free(entries);
  return packbuf_dict(kept, count);
}

static packbuf_value values_array(values_reader *v, packbuf_form form) {
  static const double zeros[64];
  packbuf_tensor *tensor = (packbuf_tensor *)values_new(v, 1, sizeof *tensor);
  uint64_t *shape = (uint64_t *)values_new(v, PACKBUF_MAX_RANK, sizeof *shape);
  char name[32];
  size_t size = strcspn(v->at, "(,]*) }");
  memset(tensor, 0, sizeof *tensor);
  snprintf(name, sizeof name, "%.*s", (int)size, v->at);
  v->at += size;
  if (!packbuf_dtype_parse(name, &tensor->dtype)) values_wrong(v);
  tensor->data = zeros;
  tensor->form = (uint8_t)form;
  tensor->shape = shape;
  if (form != PACKBUF_FORM_SCALAR && values_take(v, "("))
    for (values_space(v); !values_take(v, ")"); values_space(v)) shape[tensor->rank++] = values_count(v);
  return packbuf_tensor_value(tensor);
}

static packbuf_value values_number(values_reader *v) {
  size_t size = strspn(v->at, "+-.0123456789e");
  char text[64], back[64];
  long long i;
  unsigned long long u;
  char *kept;
  if (!size || size >= sizeof text) values_wrong(v);
  memcpy(text, v->at, size);
  text[size] = 0;
  v->at += size;
  if (strpbrk(text, ".e")) return packbuf_float(strtod(text, NULL));
  i = strtoll(text, NULL, 10); /* out of range it is the nearest that there is, which prints otherwise */
  snprintf(back, sizeof back, "%lld", i);
  if (strcmp(back, text) == 0) return packbuf_int(i);
  u = strtoull(text, NULL, 10);
  snprintf(back, sizeof back, "%llu", u);
  if (strcmp(back, text) == 0) return packbuf_uint(u);
  kept = (char *)values_new(v, size + 1, 1);
  memcpy(kept, text, size + 1);
  return packbuf_bigint(kept);
}

/* deep(n), deepl(n), keys(n) */
static packbuf_value values_made(values_reader *v, int what) {
  size_t n = values_count(v);
  packbuf_value value = packbuf_int(1);
  if (!values_take(v, ")")) values_wrong(v);
  if (what == 'k') {
    packbuf_entry *entries = (packbuf_entry *)values_new(v, n, sizeof *entries);
    for (size_t i = 0; i < n; i++) {
      char *name = (char *)values_new(v, 1, 24);
      snprintf(name, 24, "k%u", (unsigned)i);
      entries[i].key = packbuf_string(name);
      entries[i].value = packbuf_int((int64_t)i);
    }
    return packbuf_dict(entries, n);
  }
  while (n--) {
    packbuf_entry *entry = (packbuf_entry *)values_new(v, 1, sizeof *entry);
    entry->key = packbuf_string("a");
    entry->value = value;
    value = what == 'l' ? packbuf_list(&entry->value, 1) : packbuf_dict(entry, 1);
  }
  return value;
}

static packbuf_value values_named(values_reader *v, int media) {
  char *name = (char *)values_new(v, strlen(v->at) + 1, 1);
  size_t size = 0;
  if (values_take(v, ":")) {
    size = strcspn(v->at, ",]*) }");
    memcpy(name, v->at, size);
    v->at += size;
  }
  name[size] = 0;
  if (media) {
    packbuf_media *m = (packbuf_media *)values_new(v, 1, sizeof *m);
    *m = packbuf_media_of("pixels", 6, size ? name : NULL);
    return packbuf_media_value(m);
  } else {
    packbuf_opaque *o = (packbuf_opaque *)values_new(v, 1, sizeof *o);
    o->data = "\x80.";
    o->size = 2;
    o->serializer = name;
    o->serializer_size = size;
    return packbuf_opaque_value(o);
  }
}

static double values_nan(uint64_t bits) {
  double f;
  memcpy(&f, &bits, 8);
  return f;
}

static packbuf_value values_one(values_reader *v) {
  values_space(v);
  if (*v->at == '"') return values_text(v, 0);
  if (*v->at == 'b' && v->at[1] == '"') return v->at++, values_text(v, 1);
  if (values_take(v, "[")) return values_list(v, ']');
  if (values_take(v, "(")) return values_list(v, ')');
  if (values_take(v, "{")) return values_dict(v);
  if (values_take(v, "None")) return packbuf_null();
  if (values_take(v, "Missing")) return packbuf_missing();
  if (values_take(v, "True")) return packbuf_bool(1);
  if (values_take(v, "False")) return packbuf_bool(0);
  if (values_take(v, "nan1")) return packbuf_float(values_nan(0x7FF8000000000001u));
  if (values_take(v, "nan")) return packbuf_float(values_nan(0x7FF8000000000000u));
  if (values_take(v, "inf")) return packbuf_float(values_nan(0x7FF0000000000000u));
  if (values_take(v, "tensor:")) return values_array(v, PACKBUF_FORM_TENSOR);
  if (values_take(v, "array:")) return values_array(v, PACKBUF_FORM_ARRAY);
  if (values_take(v, "scalar:")) return values_array(v, PACKBUF_FORM_SCALAR);
  if (values_take(v, "media")) return values_named(v, 1);
  if (values_take(v, "opaque")) return values_named(v, 0);
  if (values_take(v, "deepl(")) return values_made(v, 'l');
  if (values_take(v, "deep(")) return values_made(v, 'd');
  if (values_take(v, "keys(")) return values_made(v, 'k');
  return values_number(v);
}

/* The value that `text` denotes; a column is a list. */
static packbuf_value values_of(const char *text, packbuf_arena *arena) {
  values_reader v;
  packbuf_value value;
  v.at = text;
  v.arena = arena;
  value = values_one(&v);
  if (*v.at) values_wrong(&v);
  return value;
}

#endif
