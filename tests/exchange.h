/* What the tests and fuzz targets of the exchange share: a hold that counts, a walk over exported arrays that looks at
 * every byte Arrow says is there, and a comparison of values that knows what Arrow loses. Test-only; includes nothing
 * but the public part of packbuf.h and packbuf_exchange.h. */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include "../exchange/packbuf_exchange.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the hold ---- */

typedef struct counting {
  long taken, released;
} counting;

static inline void counting_take(void *context) { ((counting *)context)->taken++; }
static inline void counting_release(void *context) { ((counting *)context)->released++; }

static inline packbuf_export exporting(const packbuf_selection *selection, uint32_t node, counting *count) {
  packbuf_export what;
  memset(&what, 0, sizeof what);
  what.selection = selection;
  what.node = node;
  what.hold.take = counting_take;
  what.hold.release = counting_release;
  what.hold.context = count;
  return what;
}

/* ---- a reader of Arrow that trusts nobody ---- */

static volatile uint8_t exchange_seen; /* so that no read is left out */

static inline void exchange_touch(const void *data, uint64_t size) {
  uint8_t sum = 0;
  for (uint64_t i = 0; i < size; i++) sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
  exchange_seen = (uint8_t)(exchange_seen + sum);
}

/* 1: numbers lie in a packed buffer as this machine has them, so that they can be lent. */
static inline int exchange_lends(void) {
  const uint16_t one = 1;
  uint8_t first;
  memcpy(&first, &one, 1);
  return first;
}

static inline const char *exchange_walk(const struct ArrowSchema *schema, const struct ArrowArray *array);

static inline const char *exchange_walk_children(const struct ArrowSchema *schema, const struct ArrowArray *array,
                                                 uint64_t least) {
  for (int64_t i = 0; i < schema->n_children; i++) {
    const char *wrong;
    if ((uint64_t)array->children[i]->length < least) return "a child is too short";
    wrong = exchange_walk(schema->children[i], array->children[i]);
    if (wrong) return wrong;
  }
  return NULL;
}

/* NULL, or what is wrong. Of what packbuf exports: offset 0, offsets of 64 bits. */
static inline const char *exchange_walk(const struct ArrowSchema *schema, const struct ArrowArray *array) {
  const char *f = schema->format;
  const uint64_t length = (uint64_t)array->length;
  int64_t buffers = 2, before = 0;
  if (!schema->release || !array->release || !schema->name || array->offset != 0 || array->length < 0) return "frame";
  if (schema->n_children != array->n_children || schema->dictionary || array->dictionary) return "children";
  if (strcmp(f, "n") == 0) buffers = 0;
  else if (strcmp(f, "+s") == 0 || strncmp(f, "+w:", 3) == 0) buffers = 1;
  else if (strcmp(f, "U") == 0 || strcmp(f, "Z") == 0) buffers = 3;
  if (array->n_buffers != buffers) return "buffers";
  if (buffers == 0) return array->null_count == array->length ? NULL : "null_count";
  if (array->buffers[0] && !(schema->flags & ARROW_FLAG_NULLABLE)) return "a mask of what is not nullable";
  if (array->buffers[0]) exchange_touch(array->buffers[0], (length + 7) / 8);
  if (strcmp(f, "+s") == 0) return exchange_walk_children(schema, array, length);
  if (strncmp(f, "+w:", 3) == 0) return exchange_walk_children(schema, array, length * strtoull(f + 3, NULL, 10));
  if (!array->buffers[1]) return "no buffer 1";
  if (buffers == 3 || strcmp(f, "+L") == 0) {
    for (uint64_t i = 0; i <= length; i++) {
      int64_t offset;
      memcpy(&offset, (const uint8_t *)array->buffers[1] + 8 * i, 8);
      if (offset < before) return "offsets descend";
      before = offset;
    }
    if (buffers == 2) return exchange_walk_children(schema, array, (uint64_t)before);
    if (!array->buffers[2]) return "no buffer 2";
    exchange_touch(array->buffers[2], (uint64_t)before);
    return NULL;
  }
  if (strcmp(f, "b") == 0) exchange_touch(array->buffers[1], (length + 7) / 8);
  else if (strchr("cC", f[0])) exchange_touch(array->buffers[1], length);
  else if (strchr("sSe", f[0])) exchange_touch(array->buffers[1], length * 2);
  else if (strchr("iIf", f[0]) || strcmp(f, "tdD") == 0) exchange_touch(array->buffers[1], length * 4);
  else if (strchr("lLgt", f[0])) exchange_touch(array->buffers[1], length * 8);
  else return "an unknown format";
  return NULL;
}

/* ---- what Arrow keeps of a value ---- */

/* A float of 8 or 16 bits as a double. */
static inline double exchange_small_float(packbuf_dtype dtype, unsigned bits) {
  const int fn = dtype.code == PACKBUF_DTYPE_FLOAT8_E4M3FN;
  const int width = fn ? 3 : dtype.code == PACKBUF_DTYPE_BFLOAT ? 7 : dtype.bits == 8 ? 2 : 10; /* of the fraction */
  const int top = (1 << (dtype.bits - 1 - width)) - 1, bias = top / 2;
  const int exponent = (int)(bits >> width) & top, fraction = (int)bits & ((1 << width) - 1);
  double size = ldexp(exponent ? (1 << width) + fraction : fraction, (exponent ? exponent : 1) - bias - width);
  if (fn ? exponent == top && fraction == 7 : exponent == top) size = fn || fraction ? NAN : INFINITY;
  return bits >> (dtype.bits - 1) ? -size : size;
}

/* The bytes of bytes or media; NULL for another value. */
static inline const void *exchange_bytes(const packbuf_value *value, size_t *size) {
  *size = value->kind == PACKBUF_MEDIA ? value->as.media->size : value->kind == PACKBUF_BYTES ? value->as.text.size : 0;
  return value->kind == PACKBUF_MEDIA   ? value->as.media->data
         : value->kind == PACKBUF_BYTES ? value->as.text.data
                                        : NULL;
}

/* Element `i` of a tensor in row-major order, as a number. 0: it has none. */
static inline int exchange_element(const packbuf_tensor *tensor, uint64_t i, double out[2]) {
  const uint8_t *at = (const uint8_t *)tensor->data;
  uint64_t step = tensor->dtype.bits / 8;
  uint8_t raw[16] = {0};
  float single[2];
  for (unsigned d = tensor->rank; d-- > 0;) {
    const uint64_t index = i % tensor->shape[d];
    i /= tensor->shape[d];
    at += tensor->strides ? tensor->strides[d] * (int64_t)index : (int64_t)(step * index);
    step *= tensor->shape[d];
  }
  if (i) return 0;
  memcpy(raw, at, tensor->dtype.bits / 8);
  out[1] = 0;
  if (tensor->dtype.code == PACKBUF_DTYPE_FLOAT && tensor->dtype.bits == 64) {
    memcpy(out, raw, 8);
  } else if (tensor->dtype.code == PACKBUF_DTYPE_FLOAT && tensor->dtype.bits == 32) {
    memcpy(single, raw, 4);
    out[0] = (double)single[0];
  } else if (tensor->dtype.code == PACKBUF_DTYPE_COMPLEX && tensor->dtype.bits == 128) {
    memcpy(out, raw, 16);
  } else if (tensor->dtype.code == PACKBUF_DTYPE_COMPLEX) {
    memcpy(single, raw, 8);
    out[0] = (double)single[0], out[1] = (double)single[1];
  } else {
    uint64_t bits = 0;
    int negative;
    for (unsigned k = 0; k < 8; k++) bits |= (uint64_t)raw[k] << (8 * k);
    if (tensor->dtype.bits == 16) { uint16_t two; memcpy(&two, raw, 2); bits = two; }
    if (tensor->dtype.bits == 32) { uint32_t four; memcpy(&four, raw, 4); bits = four; }
    if (tensor->dtype.bits == 64) memcpy(&bits, raw, 8);
    if (tensor->dtype.code == PACKBUF_DTYPE_FLOAT || tensor->dtype.code == PACKBUF_DTYPE_BFLOAT ||
        tensor->dtype.code >= PACKBUF_DTYPE_FLOAT8_E4M3FN) {
      out[0] = exchange_small_float(tensor->dtype, (unsigned)bits);
      return 1;
    }
    negative = tensor->dtype.code == PACKBUF_DTYPE_INT && bits >> (tensor->dtype.bits - 1) & 1;
    if (negative && tensor->dtype.bits < 64) bits |= ~UINT64_C(0) << tensor->dtype.bits;
    out[0] = negative ? (double)(int64_t)bits : (double)bits;
  }
  return 1;
}

/* The numbers of a value one after the other: call with *i = -1 to count. 0: it is no array of numbers. */
static inline int exchange_numbers(const packbuf_value *value, double (*out)[2], uint64_t *count) {
  uint64_t elements = 1;
  double number[2] = {0, 0};
  switch (value->kind) {
    case PACKBUF_BOOL: number[0] = value->as.boolean; break;
    case PACKBUF_INT: number[0] = (double)value->as.i; break;
    case PACKBUF_UINT: number[0] = (double)value->as.u; break;
    case PACKBUF_FLOAT: number[0] = value->as.f; break;
    case PACKBUF_LIST:
      for (size_t i = 0; i < value->as.list.count; i++)
        if (!exchange_numbers(&value->as.list.items[i], out, count)) return 0;
      return 1;
    case PACKBUF_TENSOR:
      for (unsigned d = 0; d < value->as.tensor->rank; d++) elements *= value->as.tensor->shape[d];
      for (uint64_t i = 0; i < elements && *count < 4096; i++, (*count)++)
        if (!exchange_element(value->as.tensor, i, out[*count])) return 0;
      return 1;
    default: return 0;
  }
  if (*count < 4096) {
    out[*count][0] = number[0], out[*count][1] = number[1];
    (*count)++;
  }
  return 1;
}

static inline int exchange_same_numbers(const double *a, uint64_t of_a, const double *b, uint64_t of_b) {
  if (of_a != of_b) return 0;
  for (uint64_t i = 0; i < of_a; i++)
    if (memcmp(&a[i], &b[i], 8) != 0 && !(isnan(a[i]) && isnan(b[i]))) return 0;
  return 1;
}

/* Whether what came back through Arrow is what went in, but for what Arrow has no word for: missing is null, a key that
 * a row has not is null, arrays and tensors are lists, 1, 1.0 and true may be one number, and items of a media
 * list are media. */
static inline int exchange_same(const packbuf_value *in, const packbuf_value *out) {
  static double a[4096][2], b[4096][2];
  uint64_t of_a = 0, of_b = 0;
  size_t in_size, out_size;
  const int none = in->kind == PACKBUF_NULL || in->kind == PACKBUF_MISSING;
  if (none || out->kind == PACKBUF_NULL || out->kind == PACKBUF_MISSING)
    return none && (out->kind == PACKBUF_NULL || out->kind == PACKBUF_MISSING);
  if (in->kind == PACKBUF_DICT && out->kind == PACKBUF_DICT) {
    packbuf_value null = packbuf_null();
    for (size_t i = 0; i < out->as.dict.count; i++) {
      const packbuf_entry *entry = &out->as.dict.entries[i];
      const packbuf_value *of = &null;
      for (size_t k = 0; k < in->as.dict.count; k++)
        if (packbuf_equal(&in->as.dict.entries[k].key, &entry->key)) of = &in->as.dict.entries[k].value;
      if (!exchange_same(of, &entry->value)) return 0;
    }
    return in->as.dict.count <= out->as.dict.count;
  }
  if (exchange_numbers(in, a, &of_a) && exchange_numbers(out, b, &of_b))
    return exchange_same_numbers(&a[0][0], of_a * 2, &b[0][0], of_b * 2);
  if (exchange_bytes(in, &in_size) && exchange_bytes(out, &out_size))
    return in_size == out_size && memcmp(exchange_bytes(in, &in_size), exchange_bytes(out, &out_size), in_size) == 0;
  if (in->kind == PACKBUF_LIST && out->kind == PACKBUF_LIST && in->as.list.count == out->as.list.count) {
    for (size_t i = 0; i < in->as.list.count; i++)
      if (!exchange_same(&in->as.list.items[i], &out->as.list.items[i])) return 0;
    return 1;
  }
  return packbuf_equal(in, out);
}

#endif
