/* tests/tagged.h: values, cells and whole packed buffers as tagged JSON (section 22 of the spec), for the tests. Public
 * API only.
 *
 *     tagged_text out = {NULL, 0, 0, 0};
 *     status = tagged_batch(&out, &view, &arena, &error);     out.data, out.size; ends with a NUL that is not counted
 *     free(out.data);
 *
 * Must not know: how anything is stored. */
#ifndef TAGGED_H
#define TAGGED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tagged_text {
  char *data;
  size_t size, capacity;
  int failed; /* there was no memory, or a value that cannot be printed */
} tagged_text;

static void tagged_add(tagged_text *out, const void *data, size_t size) {
  if (size >= out->capacity - out->size && !out->failed) {
    const size_t capacity = (out->size + size + 64) * 2;
    char *grown = (char *)realloc(out->data, capacity);
    if (grown) out->data = grown, out->capacity = capacity;
    else out->failed = 1;
  }
  if (out->failed) return;
  if (size) memcpy(out->data + out->size, data, size);
  out->size += size;
  out->data[out->size] = 0;
}

static void tagged_puts(tagged_text *out, const char *text) { tagged_add(out, text, strlen(text)); }

static void tagged_base64(tagged_text *out, const void *data, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *p = (const unsigned char *)data;
  tagged_puts(out, "\"");
  for (size_t i = 0; i < size; i += 3) {
    const size_t left = size - i;
    const unsigned long bits =
        (unsigned long)p[i] << 16 | (left > 1 ? (unsigned long)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0u);
    char four[4];
    four[0] = digits[bits >> 18];
    four[1] = digits[bits >> 12 & 63];
    four[2] = '=';
    four[3] = '=';
    if (left > 1) four[2] = digits[bits >> 6 & 63];
    if (left > 2) four[3] = digits[bits & 63];
    tagged_add(out, four, 4);
  }
  tagged_puts(out, "\"");
}

/* What plain JSON can hold, as the library prints it. */
static void tagged_plain(tagged_text *out, const packbuf_value *value) {
  size_t size = 0;
  char small[32], *text;
  if (packbuf_json_write(value, small, sizeof small, &size, NULL) == PACKBUF_OK) {
    tagged_add(out, small, size);
    return;
  }
  /* measured, then written: where the value points to memory that changes meanwhile, the second call says so */
  if (packbuf_json_write(value, NULL, 0, &size, NULL) != PACKBUF_OK || (text = (char *)malloc(size + 1)) == NULL) {
    out->failed = 1;
    return;
  }
  if (packbuf_json_write(value, text, size + 1, &size, NULL) == PACKBUF_OK) tagged_add(out, text, size);
  else out->failed = 1;
  free(text);
}

static void tagged_string(tagged_text *out, const char *data, size_t size) {
  const packbuf_value value = packbuf_string_n(data, size);
  tagged_plain(out, &value);
}

/* By address: the x87 makes a signalling NaN quiet when it passes one. */
static void tagged_float(tagged_text *out, const double *number) {
  packbuf_value value;
  uint64_t bits;
  char text[48];
  memcpy(&bits, number, 8);
  if ((bits & ~(UINT64_C(1) << 63)) <= UINT64_C(0x7FF) << 52 || bits == UINT64_C(0x7FF8) << 48) {
    value = packbuf_float(*number);
    tagged_plain(out, &value);
    return;
  }
  sprintf(text, "{\"$float\":\"%016llx\"}", (unsigned long long)bits);
  tagged_puts(out, text);
}

static void tagged_number(tagged_text *out, const char *before, long long number) {
  char text[64];
  sprintf(text, "%s%lld", before, number);
  tagged_puts(out, text);
}

static void tagged_tensor(tagged_text *out, const packbuf_tensor *tensor) {
  static const char *const forms[] = {"?", "?", "array", "tensor", "scalar"};
  static const uint16_t probe = 1;
  const size_t element = tensor->dtype.bits / 8u,
               word = tensor->dtype.code == PACKBUF_DTYPE_COMPLEX ? element / 2 : element;
  const int swap = *(const unsigned char *)&probe == 0;
  size_t bytes = element;
  unsigned char *copy;
  tagged_puts(out, "{\"$tensor\":{\"form\":\"");
  tagged_puts(out, forms[tensor->form <= 4 ? tensor->form : 0]);
  tagged_puts(out, "\",\"dtype\":\"");
  tagged_puts(out, packbuf_dtype_name(tensor->dtype) ? packbuf_dtype_name(tensor->dtype) : "?");
  tagged_puts(out, "\",\"shape\":[");
  for (unsigned d = 0; d < tensor->rank; d++) bytes *= (size_t)tensor->shape[d];
  for (unsigned d = 0; d < tensor->rank; d++) tagged_number(out, d ? "," : "", (long long)tensor->shape[d]);
  tagged_puts(out, "],\"data\":");
  copy = (unsigned char *)malloc(bytes + 1);
  if (copy == NULL) {
    out->failed = 1;
    return;
  }
  for (size_t i = 0; i < bytes; i++)
    copy[i] = ((const unsigned char *)tensor->data)[swap ? i / word * word + (word - 1 - i % word) : i];
  tagged_base64(out, copy, bytes);
  free(copy);
  tagged_puts(out, "}}");
}

static void tagged_media(tagged_text *out, const packbuf_media *media) {
  tagged_puts(out, "{\"$media\":{");
  if (media->mime)
    tagged_puts(out, "\"mime\":"), tagged_string(out, media->mime, media->mime_size), tagged_puts(out, ",");
  if (media->height >= 0) tagged_number(out, "\"height\":", (long long)media->height), tagged_puts(out, ",");
  if (media->width >= 0) tagged_number(out, "\"width\":", (long long)media->width), tagged_puts(out, ",");
  if (media->channels >= 0) tagged_number(out, "\"channels\":", (long long)media->channels), tagged_puts(out, ",");
  if (media->mode)
    tagged_puts(out, "\"mode\":"), tagged_string(out, media->mode, media->mode_size), tagged_puts(out, ",");
  if (media->has_rate) tagged_puts(out, "\"rate\":"), tagged_float(out, &media->rate), tagged_puts(out, ",");
  tagged_puts(out, "\"data\":");
  tagged_base64(out, media->data, media->size);
  tagged_puts(out, "}}");
}

static void tagged_value(tagged_text *out, const packbuf_value *value);

/* Whether a dict needs the form of pairs: a key is no string, or the only key starts with $. */
static int tagged_pairs(const packbuf_entry *entries, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (entries[i].key.kind != PACKBUF_STRING) return 1;
  }
  return count == 1 && entries[0].key.as.text.size > 0 && entries[0].key.as.text.data[0] == '$';
}

static void tagged_dict(tagged_text *out, const packbuf_entry *entries, size_t count) {
  const int pairs = tagged_pairs(entries, count);
  tagged_puts(out, pairs ? "{\"$dict\":[" : "{");
  for (size_t i = 0; i < count; i++) {
    tagged_puts(out, i ? (pairs ? ",[" : ",") : (pairs ? "[" : ""));
    tagged_value(out, &entries[i].key);
    tagged_puts(out, pairs ? "," : ":");
    tagged_value(out, &entries[i].value);
    if (pairs) tagged_puts(out, "]");
  }
  tagged_puts(out, pairs ? "]}" : "}");
}

/* Any value. Recursion as deep as the value. */
static void tagged_value(tagged_text *out, const packbuf_value *value) {
  switch (value->kind) {
    case PACKBUF_MISSING: tagged_puts(out, "{\"$missing\":true}"); break;
    case PACKBUF_BIGINT: tagged_add(out, value->as.text.data, value->as.text.size); break;
    case PACKBUF_FLOAT: tagged_float(out, &value->as.f); break;
    case PACKBUF_BYTES:
      tagged_puts(out, "{\"$bytes\":");
      tagged_base64(out, value->as.text.data, value->as.text.size);
      tagged_puts(out, "}");
      break;
    case PACKBUF_MEDIA: tagged_media(out, value->as.media); break;
    case PACKBUF_OPAQUE:
      tagged_puts(out, "{\"$opaque\":{\"serializer\":");
      tagged_string(out, value->as.opaque->serializer, value->as.opaque->serializer_size);
      tagged_puts(out, ",\"data\":");
      tagged_base64(out, value->as.opaque->data, value->as.opaque->size);
      tagged_puts(out, "}}");
      break;
    case PACKBUF_TENSOR: tagged_tensor(out, value->as.tensor); break;
    case PACKBUF_LIST:
      tagged_puts(out, "[");
      for (size_t i = 0; i < value->as.list.count; i++) {
        if (i) tagged_puts(out, ",");
        tagged_value(out, &value->as.list.items[i]);
      }
      tagged_puts(out, "]");
      break;
    case PACKBUF_DICT: tagged_dict(out, value->as.dict.entries, value->as.dict.count); break;
    default: tagged_plain(out, value); break;
  }
}

/* A column, or why it cannot be opened. */
typedef struct tagged_column {
  packbuf_column column;
  packbuf_status status;
  uint32_t node;
} tagged_column;

static void tagged_open(tagged_column *c, const packbuf_view *view, uint32_t node, packbuf_error *error) {
  c->node = node;
  c->status = packbuf_open_column(view, node, &c->column, error);
}

static packbuf_status tagged_cell_of(tagged_text *out, const packbuf_view *view, const tagged_column *c, uint64_t row,
                                     packbuf_arena *arena, packbuf_error *error);

/* The children of a dict or list node in one row; those beyond `length` and missing ones are left out. */
static packbuf_status tagged_children(tagged_text *out, const packbuf_view *view, const packbuf_node *up, uint64_t row,
                                      uint64_t length, packbuf_arena *arena, packbuf_error *error) {
  const int dict = up->kind == PACKBUF_NODE_DICT;
  const size_t start = out->size;
  uint64_t shown = 0, dollar = 0, position = 0;
  tagged_puts(out, dict ? "{" : "[");
  for (uint32_t i = up->index + 1; i <= up->index + up->descendants && position < length; position++) {
    packbuf_node child;
    tagged_column c;
    int state = 1;
    packbuf_status status = packbuf_get_node(view, i, &child, error);
    if (status == PACKBUF_OK && (child.parent != up->index || child.descendants > up->index + up->descendants - i))
      status = PACKBUF_BAD_NODE;
    if (status != PACKBUF_OK) return status;
    tagged_open(&c, view, i, error);
    if (dict && c.status == PACKBUF_OK) status = packbuf_cell_state(&c.column, row, &state, error);
    if (status != PACKBUF_OK) return status;
    i += 1 + child.descendants;
    if (dict && state == -1) continue;
    if (shown++) tagged_puts(out, ",");
    if (dict) {
      dollar = child.name.size > 0 && child.name.data[0] == '$';
      tagged_string(out, child.name.data, child.name.size);
      tagged_puts(out, ":");
    }
    status = tagged_cell_of(out, view, &c, row, arena, error);
    if (status != PACKBUF_OK) return status;
  }
  tagged_puts(out, dict ? "}" : "]");
  if (shown == 1 && dollar && !out->failed) { /* {"$a":b} becomes {"$dict":[["$a",b]]} */
    tagged_text inner = {NULL, 0, 0, 0};
    size_t colon = start + 2;
    while (out->data[colon] != '"') colon += out->data[colon] == '\\' ? 2 : 1;
    colon++;
    tagged_puts(&inner, "{\"$dict\":[[");
    tagged_add(&inner, out->data + start + 1, colon - start - 1);
    tagged_puts(&inner, ",");
    tagged_add(&inner, out->data + colon + 1, out->size - colon - 2);
    tagged_puts(&inner, "]]}");
    out->size = start;
    tagged_add(out, inner.data, inner.size);
    free(inner.data);
  }
  return PACKBUF_OK;
}

/* One cell; {"$unreadable":"..."} where the leaf cannot be read. */
static packbuf_status tagged_cell_of(tagged_text *out, const packbuf_view *view, const tagged_column *c, uint64_t row,
                                     packbuf_arena *arena, packbuf_error *error) {
  packbuf_value value;
  uint64_t first, length = UINT64_MAX;
  int state;
  packbuf_status status = c->status;
  if (status >= PACKBUF_UNSUPPORTED_VERSION && status <= PACKBUF_UNSUPPORTED_ROLE) {
    tagged_puts(out, "{\"$unreadable\":\"");
    tagged_puts(out, packbuf_status_name(status));
    tagged_puts(out, "\"}");
    return PACKBUF_OK;
  }
  if (status == PACKBUF_OK) status = packbuf_cell_state(&c->column, row, &state, error);
  if (status != PACKBUF_OK) return status;
  if (c->column.node.kind != PACKBUF_LEAF && state == 1) {
    if (c->column.node.kind == PACKBUF_NODE_LIST) status = packbuf_cell_extent(&c->column, row, &first, &length, error);
    return status == PACKBUF_OK ? tagged_children(out, view, &c->column.node, row, length, arena, error) : status;
  }
  value = state == 0 ? packbuf_null() : packbuf_missing();
  if (state == 1) status = packbuf_read_cell(view, c->node, row, arena, &value, error);
  if (status == PACKBUF_OK) tagged_value(out, &value);
  return status;
}

static inline packbuf_status tagged_cell(tagged_text *out, const packbuf_view *view, uint32_t node, uint64_t row,
                                         packbuf_arena *arena, packbuf_error *error) {
  tagged_column c;
  tagged_open(&c, view, node, error);
  return tagged_cell_of(out, view, &c, row, arena, error);
}

/* The metadata of one node, or of the whole buffer. */
static packbuf_status tagged_metadata(tagged_text *out, const packbuf_view *view, uint32_t node, int *any,
                                      packbuf_error *error) {
  char path[4096];
  int open = 0;
  for (uint32_t i = 0; i < view->metadata_count; i++) {
    packbuf_metadata pair;
    const packbuf_status status = packbuf_get_metadata(view, i, &pair, error);
    if (status != PACKBUF_OK) return status;
    if (pair.node != node) continue;
    if (!open) {
      packbuf_node owner;
      size_t prefix = 0;
      path[0] = 0;
      if (node != PACKBUF_NO_NODE && packbuf_get_node(view, node, &owner, error) == PACKBUF_OK && owner.scope == 1) {
        memcpy(path, "values:", 8);
        prefix = 7;
      }
      if (node != PACKBUF_NO_NODE) packbuf_node_path(view, node, path + prefix, sizeof path - prefix);
      if (*any) tagged_puts(out, ",");
      tagged_string(out, path, strlen(path));
      tagged_puts(out, ":{");
    } else {
      tagged_puts(out, ",");
    }
    open = *any = 1;
    tagged_string(out, pair.key.data, pair.key.size);
    tagged_puts(out, ":");
    tagged_string(out, pair.text.data, pair.text.size);
  }
  if (open) tagged_puts(out, "}");
  return PACKBUF_OK;
}

/* `count` rows from `first` on, each `step` after the one before; those that are not there are left out. */
typedef struct tagged_rows {
  uint64_t first, step, count;
} tagged_rows;

/* Some rows of a packed buffer, those in two ranges twice, with its batch values and metadata. */
static packbuf_status tagged_some(tagged_text *out, const packbuf_view *view, const tagged_rows *rows, unsigned count,
                                  packbuf_arena *arena, packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  int scope = 0, any = 0;
  tagged_number(out, "{\"rows\":", (long long)view->rows);
  tagged_puts(out, ",\"fields\":{");
  for (uint32_t i = 0; status == PACKBUF_OK && i < view->node_count;) {
    packbuf_node node;
    tagged_column c;
    status = packbuf_get_node(view, i, &node, error);
    if (status != PACKBUF_OK) return status;
    tagged_open(&c, view, i, error);
    if (scope == 0 && node.scope == 1) tagged_puts(out, "},\"values\":{"), scope = 1, any = 0;
    if (any++) tagged_puts(out, ",");
    tagged_string(out, node.name.data, node.name.size);
    tagged_puts(out, scope ? ":" : ":[");
    if (scope) status = tagged_cell_of(out, view, &c, 0, arena, error);
    for (unsigned k = 0, shown = 0; k < count && !scope; k++) {
      uint64_t row = rows[k].first;
      for (uint64_t left = rows[k].count; status == PACKBUF_OK && left != 0 && row < view->rows;
           left--, row += rows[k].step) {
        if (shown++) tagged_puts(out, ",");
        status = tagged_cell_of(out, view, &c, row, arena, error);
      }
    }
    if (!scope) tagged_puts(out, "]");
    i += 1 + node.descendants;
  }
  tagged_puts(out, scope ? "},\"metadata\":{" : "},\"values\":{},\"metadata\":{");
  any = 0;
  if (status == PACKBUF_OK) status = tagged_metadata(out, view, PACKBUF_NO_NODE, &any, error);
  for (uint32_t i = 0; status == PACKBUF_OK && i < view->node_count && view->metadata_count != 0; i++)
    status = tagged_metadata(out, view, i, &any, error);
  tagged_puts(out, "}}");
  return status;
}

/* A whole packed buffer. */
static packbuf_status tagged_batch(tagged_text *out, const packbuf_view *view, packbuf_arena *arena,
                                   packbuf_error *error) {
  const tagged_rows all = {0, 1, view->rows};
  return tagged_some(out, view, &all, 1, arena, error);
}

#endif
