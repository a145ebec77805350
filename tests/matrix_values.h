/* Values for the tests of packing: a notation for columns (tests/matrix.c), a comparison of its own (section 16 of the
 * spec, not packbuf_equal), random numbers, and the way there and back. Test-only; includes nothing but the public part
 * of packbuf.h.
 *
 * Notation, white space between tokens:
 *     null missing true false 12 18446744073709551616 -0.5 1e300 nan nan:7ff8000000000001 inf -inf
 *     "text" b"bytes"                              escapes \" \\ \xHH
 *     [1 2 3] {"k" 1 2 true}                       list; dict of key, value, key, value
 *     t.f32[2 2](1 2 3 4) a.i64[0]() s.i8(1)       tensor, array, scalar; elements in row-major order, c64 and c128 as
 * pairs, 0x... as bits; F before [ stores it in Fortran order m"mime:bytes" o"serializer:bytes"            media,
 * opaque v*9                                          v nine times
 */
#ifndef MATRIX_VALUES_H
#define MATRIX_VALUES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory that lives until mv_free ---- */

static void *mv_blocks;

static inline void *mv_alloc(uint64_t size)
{
    void **block = (void **)malloc(sizeof(void *) * 2 + (size_t)size);
    if (!block) abort();
    block[0] = mv_blocks;
    mv_blocks = block;
    return block + 2;
}

static inline void mv_free(void)
{
    while (mv_blocks) {
        void **block = (void **)mv_blocks;
        mv_blocks = block[0];
        free(block);
    }
}

static inline void *mv_copy(const void *data, size_t size)
{
    void *copy = mv_alloc(size + 1);
    if (size) memcpy(copy, data, size);
    ((char *)copy)[size] = 0;
    return copy;
}

/* ---- dtypes ---- */

typedef struct mv_dtype {
    const char *name;
    packbuf_dtype_code code;
    unsigned bits;
} mv_dtype;

static const mv_dtype mv_dtypes[] = {
    {"i8", PACKBUF_DTYPE_INT, 8},           {"i16", PACKBUF_DTYPE_INT, 16},       {"i32", PACKBUF_DTYPE_INT, 32},
    {"i64", PACKBUF_DTYPE_INT, 64},         {"u8", PACKBUF_DTYPE_UINT, 8},        {"u16", PACKBUF_DTYPE_UINT, 16},
    {"u32", PACKBUF_DTYPE_UINT, 32},        {"u64", PACKBUF_DTYPE_UINT, 64},      {"f16", PACKBUF_DTYPE_FLOAT, 16},
    {"f32", PACKBUF_DTYPE_FLOAT, 32},       {"f64", PACKBUF_DTYPE_FLOAT, 64},     {"bf16", PACKBUF_DTYPE_BFLOAT, 16},
    {"c64", PACKBUF_DTYPE_COMPLEX, 64},     {"c128", PACKBUF_DTYPE_COMPLEX, 128}, {"b8", PACKBUF_DTYPE_BOOL, 8},
    {"e4", PACKBUF_DTYPE_FLOAT8_E4M3FN, 8}, {"e5", PACKBUF_DTYPE_FLOAT8_E5M2, 8}};

enum { MV_DTYPES = sizeof mv_dtypes / sizeof *mv_dtypes };

static inline packbuf_dtype mv_dtype_at(unsigned i)
{
    return packbuf_dtype_of(mv_dtypes[i].code, mv_dtypes[i].bits);
}

/* ---- the notation ---- */

typedef struct mv_text {
    const char *at;
} mv_text;

static inline int mv_more(mv_text *text)
{
    while (*text->at == ' ') text->at++;
    return *text->at != 0;
}

static inline int mv_take(mv_text *text, const char *token)
{
    size_t size = strlen(token);
    mv_more(text);
    if (strncmp(text->at, token, size) != 0) return 0;
    text->at += size;
    return 1;
}

static inline void mv_must(mv_text *text, const char *token)
{
    if (!mv_take(text, token)) {
        fprintf(stderr, "notation: %s expected at: %s\n", token, text->at);
        abort();
    }
}

static inline unsigned mv_hex(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
}

/* A quoted text; its bytes, NUL-terminated, and their number. */
static inline char *mv_quoted(mv_text *text, size_t *size)
{
    char *to;
    mv_must(text, "\"");
    to = (char *)mv_alloc(strlen(text->at) + 1);
    for (*size = 0; *text->at != '"'; text->at++) {
        if (text->at[0] == '\\' && text->at[1] == 'x') {
            to[(*size)++] = (char)(mv_hex(text->at[2]) << 4 | mv_hex(text->at[3]));
            text->at += 3;
        } else {
            if (text->at[0] == '\\') text->at++;
            to[(*size)++] = *text->at;
        }
    }
    text->at++;
    to[*size] = 0;
    return to;
}

static inline void mv_store(uint8_t *to, uint64_t word, unsigned bytes)
{
    uint32_t word32 = (uint32_t)word;
    uint16_t word16 = (uint16_t)word;
    if (bytes == 8) memcpy(to, &word, 8);
    else if (bytes == 4) memcpy(to, &word32, 4);
    else if (bytes == 2) memcpy(to, &word16, 2);
    else *to = (uint8_t)word;
}

/* One number (half of a complex one) in the dtype, in native order. */
static inline void mv_element(mv_text *text, const mv_dtype *dtype, uint8_t *to)
{
    unsigned bytes = dtype->code == PACKBUF_DTYPE_COMPLEX ? dtype->bits / 16 : dtype->bits / 8;
    char *end;
    mv_more(text);
    if (text->at[0] == '0' && text->at[1] == 'x') {
        mv_store(to, strtoull(text->at, &end, 16), bytes);
    } else if (dtype->code == PACKBUF_DTYPE_FLOAT || dtype->code == PACKBUF_DTYPE_COMPLEX) {
        double f = strtod(text->at, &end);
        float narrow = (float)f;
        if (bytes == 8) memcpy(to, &f, 8);
        else if (bytes == 4) memcpy(to, &narrow, 4);
        else mv_store(to, f == 0.0 ? 0 : f == 1.0 ? 0x3c00 : 0x4000, 2); /* float16: 0, 1, 2 */
    } else if (*text->at == '-') {
        mv_store(to, (uint64_t)strtoll(text->at, &end, 10), bytes);
    } else {
        mv_store(to, strtoull(text->at, &end, 10), bytes);
    }
    text->at = end;
}

static inline packbuf_value mv_tensor(mv_text *text, unsigned form)
{
    packbuf_tensor *tensor = (packbuf_tensor *)mv_alloc(sizeof *tensor);
    uint64_t *shape = (uint64_t *)mv_alloc(8 * PACKBUF_MAX_RANK), count = 1;
    int64_t *strides = (int64_t *)mv_alloc(8 * PACKBUF_MAX_RANK);
    const mv_dtype *dtype = NULL;
    unsigned halves, bytes, fortran;
    uint8_t *data;
    memset(tensor, 0, sizeof *tensor);
    for (unsigned i = 0; i < MV_DTYPES && !dtype; i++) {
        size_t size = strlen(mv_dtypes[i].name);
        if (strncmp(text->at, mv_dtypes[i].name, size) == 0 && !(text->at[size] >= '0' && text->at[size] <= '9')) {
            dtype = &mv_dtypes[i];
            text->at += size;
        }
    }
    if (!dtype) abort();
    fortran = (unsigned)mv_take(text, "F");
    tensor->dtype = packbuf_dtype_of(dtype->code, dtype->bits);
    tensor->form = (uint8_t)form;
    tensor->shape = shape;
    if (mv_take(text, "["))
        while (!mv_take(text, "]")) {
            char *end;
            mv_more(text);
            shape[tensor->rank] = strtoull(text->at, &end, 10);
            count *= shape[tensor->rank++];
            text->at = end;
        }
    bytes = dtype->bits / 8;
    halves = dtype->code == PACKBUF_DTYPE_COMPLEX ? 2 : 1;
    data = (uint8_t *)mv_alloc((size_t)count * bytes + 1);
    tensor->data = data;
    for (unsigned d = 0; fortran && d < tensor->rank; d++)
      strides[d] = d ? strides[d - 1] * (int64_t)shape[d - 1] : (int64_t)bytes;
    if (fortran) tensor->strides = strides;
    mv_must(text, "(");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t place = i, rest = i;
        if (fortran) {
            place = 0;
            for (unsigned d = tensor->rank; d-- > 0; rest /= shape[d]) place += rest % shape[d] * (uint64_t)strides[d];
            place /= bytes;
        }
        for (unsigned h = 0; h < halves; h++) mv_element(text, dtype, data + place * bytes + h * bytes / 2);
    }
    mv_must(text, ")");
    return packbuf_tensor_value(tensor);
}

static inline packbuf_value mv_number(mv_text *text)
{
    const char *from = text->at, *end = from;
    char *stop;
    size_t size;
    while (*end && !strchr(" ])}*", *end)) end++;
    size = (size_t)(end - from);
    text->at = end;
    if (memchr(from, '.', size) || memchr(from, 'e', size)) return packbuf_float(strtod(from, &stop));
    if (size < 19) return packbuf_int(strtoll(from, &stop, 10));
    {
        char *copy = (char *)mv_copy(from, size);
        const char *digits = copy[0] == '-' ? copy + 1 : copy;
        size_t n = strlen(digits);
        if (copy[0] == '-') {
          if (n < 19 || (n == 19 && strcmp(digits, "9223372036854775808") <= 0))
            return packbuf_int(strtoll(copy, &stop, 10));
        } else if (n < 20 || (n == 20 && strcmp(digits, "18446744073709551615") <= 0)) {
            uint64_t u = strtoull(copy, &stop, 10);
            return u >> 63 ? packbuf_uint(u) : packbuf_int((int64_t)u);
        }
        return packbuf_bigint(copy);
    }
}

static packbuf_value mv_value(mv_text *text);

/* Values up to `close`, each as often as it is repeated. */
static inline packbuf_value *mv_values(mv_text *text, const char *close, size_t *count)
{
    size_t room = 8;
    packbuf_value *items = (packbuf_value *)mv_alloc(room * sizeof *items);
    *count = 0;
    while (close ? !mv_take(text, close) : mv_more(text)) {
        packbuf_value value = mv_value(text);
        size_t times = 1;
        if (*text->at == '*') {
            char *end;
            times = strtoul(text->at + 1, &end, 10);
            text->at = end;
        }
        for (; times; times--) {
            if (*count == room) {
                packbuf_value *grown = (packbuf_value *)mv_alloc(2 * room * sizeof *items);
                memcpy(grown, items, room * sizeof *items);
                items = grown;
                room *= 2;
            }
            items[(*count)++] = value;
        }
    }
    return items;
}

static inline packbuf_value mv_dict_of(const packbuf_value *items, size_t count)
{
    packbuf_entry *entries = (packbuf_entry *)mv_alloc((count / 2 + 1) * sizeof *entries);
    for (size_t i = 0; i + 1 < count; i += 2) {
        entries[i / 2].key = items[i];
        entries[i / 2].value = items[i + 1];
    }
    return packbuf_dict(entries, count / 2);
}

static inline packbuf_value mv_media(mv_text *text, int opaque)
{
    size_t size, name;
    char *bytes = mv_quoted(text, &size);
    const char *colon = (const char *)memchr(bytes, ':', size);
    if (!colon) abort();
    name = (size_t)(colon - bytes);
    if (opaque) {
        packbuf_opaque *o = (packbuf_opaque *)mv_alloc(sizeof *o);
        o->serializer = bytes;
        o->serializer_size = name;
        o->data = colon + 1;
        o->size = size - name - 1;
        return packbuf_opaque_value(o);
    } else {
        packbuf_media *m = (packbuf_media *)mv_alloc(sizeof *m);
        *m = packbuf_media_of(colon + 1, size - name - 1, NULL);
        if (name) {
            m->mime = bytes;
            m->mime_size = name;
        }
        return packbuf_media_value(m);
    }
}

static inline packbuf_value mv_value(mv_text *text)
{
    size_t count;
    mv_more(text);
    if (mv_take(text, "null")) return packbuf_null();
    if (mv_take(text, "missing")) return packbuf_missing();
    if (mv_take(text, "true")) return packbuf_bool(1);
    if (mv_take(text, "false")) return packbuf_bool(0);
    if (mv_take(text, "t.")) return mv_tensor(text, PACKBUF_FORM_TENSOR);
    if (mv_take(text, "a.")) return mv_tensor(text, PACKBUF_FORM_ARRAY);
    if (mv_take(text, "s.")) return mv_tensor(text, PACKBUF_FORM_SCALAR);
    if (mv_take(text, "nan") || mv_take(text, "-inf") || mv_take(text, "inf")) {
      uint64_t bits = text->at[-1] == 'n'   ? 0x7ff8000000000000u
                      : text->at[-4] == '-' ? 0xfff0000000000000u
                                            : 0x7ff0000000000000u;
      double f;
      char *end;
      if (*text->at == ':') {
        bits = strtoull(text->at + 1, &end, 16);
        text->at = end;
        }
        memcpy(&f, &bits, 8);
        return packbuf_float(f);
    }
    if (mv_take(text, "[")) {
        packbuf_value *items = mv_values(text, "]", &count);
        return packbuf_list(items, count);
    }
    if (mv_take(text, "{")) {
        packbuf_value *items = mv_values(text, "}", &count);
        return mv_dict_of(items, count);
    }
    if (*text->at == 'b' || *text->at == '"') {
        int bytes = mv_take(text, "b");
        char *data = mv_quoted(text, &count);
        return bytes ? packbuf_bytes(data, count) : packbuf_string_n(data, count);
    }
    if (mv_take(text, "m")) return mv_media(text, 0);
    if (mv_take(text, "o")) return mv_media(text, 1);
    return mv_number(text);
}

/* The rows of a column in the notation. */
static inline packbuf_value *mv_column(const char *notation, size_t *rows)
{
    mv_text text;
    text.at = notation;
    return mv_values(&text, NULL, rows);
}

/* ---- a comparison that shares no code with packbuf_equal ---- */

static inline int mv_same_bytes(const void *a, size_t a_size, const void *b, size_t b_size)
{
    return a_size == b_size && (a_size == 0 || memcmp(a, b, a_size) == 0);
}

static const uint8_t *mv_element_at(const packbuf_tensor *tensor, uint64_t index)
{
    int64_t at = 0, step = tensor->dtype.bits / 8;
    for (unsigned d = tensor->rank; d-- > 0; index /= tensor->shape[d]) {
        at += (int64_t)(index % tensor->shape[d]) * (tensor->strides ? tensor->strides[d] : step);
        step *= (int64_t)tensor->shape[d];
    }
    return (const uint8_t *)tensor->data + at;
}

static inline int mv_same_tensor(const packbuf_tensor *a, const packbuf_tensor *b)
{
  unsigned a_form = a->form ? a->form : (unsigned)PACKBUF_FORM_TENSOR,
           b_form = b->form ? b->form : (unsigned)PACKBUF_FORM_TENSOR;
  uint64_t count = 1;
  if (a_form != b_form || a->rank != b->rank || a->dtype.code != b->dtype.code || a->dtype.bits != b->dtype.bits ||
      a->dtype.lanes != b->dtype.lanes)
    return 0;
  for (unsigned d = 0; d < a->rank; d++) {
    if (a->shape[d] != b->shape[d]) return 0;
    count *= a->shape[d];
    }
    for (uint64_t i = 0; i < count; i++)
        if (memcmp(mv_element_at(a, i), mv_element_at(b, i), a->dtype.bits / 8) != 0) return 0;
    return 1;
}

static int mv_same(const packbuf_value *a, const packbuf_value *b);

static inline int mv_same_dict(const packbuf_value *a, const packbuf_value *b)
{
    if (a->as.dict.count != b->as.dict.count) return 0;
    for (size_t i = 0; i < a->as.dict.count; i++) {
        size_t found = 0;
        for (size_t j = 0; j < b->as.dict.count; j++) {
            size_t k = (i + j) % b->as.dict.count;
            if (mv_same(&a->as.dict.entries[i].key, &b->as.dict.entries[k].key) &&
                mv_same(&a->as.dict.entries[i].value, &b->as.dict.entries[k].value)) {
              found = 1;
              break;
            }
        }
        if (!found) return 0;
    }
    return 1;
}

static inline int mv_same_attribute(const char *a, size_t a_size, const char *b, size_t b_size)
{
    if (!a || !b) return a == b;
    return mv_same_bytes(a, a_size, b, b_size);
}

static inline int mv_same_media(const packbuf_media *a, const packbuf_media *b)
{
  return mv_same_bytes(a->data, a->size, b->data, b->size) &&
         mv_same_attribute(a->mime, a->mime_size, b->mime, b->mime_size) &&
         mv_same_attribute(a->mode, a->mode_size, b->mode, b->mode_size) && a->height == b->height &&
         a->width == b->width && a->channels == b->channels && a->has_rate == b->has_rate &&
         (!a->has_rate || memcmp(&a->rate, &b->rate, 8) == 0);
}

static inline int mv_same(const packbuf_value *a, const packbuf_value *b)
{
    unsigned kind = a->kind;
    if (kind != b->kind) {
        if (kind == PACKBUF_INT && b->kind == PACKBUF_UINT) return a->as.i >= 0 && (uint64_t)a->as.i == b->as.u;
        if (kind == PACKBUF_UINT && b->kind == PACKBUF_INT) return mv_same(b, a);
        return 0;
    }
    switch (kind) {
    case PACKBUF_NULL:
    case PACKBUF_MISSING: return 1;
    case PACKBUF_BOOL: return !a->as.boolean == !b->as.boolean;
    case PACKBUF_INT: return a->as.i == b->as.i;
    case PACKBUF_UINT: return a->as.u == b->as.u;
    case PACKBUF_FLOAT: return memcmp(&a->as.f, &b->as.f, 8) == 0;
    case PACKBUF_BIGINT:
    case PACKBUF_STRING:
    case PACKBUF_BYTES: return mv_same_bytes(a->as.text.data, a->as.text.size, b->as.text.data, b->as.text.size);
    case PACKBUF_OPAQUE:
      return mv_same_bytes(a->as.opaque->data, a->as.opaque->size, b->as.opaque->data, b->as.opaque->size) &&
             mv_same_bytes(a->as.opaque->serializer, a->as.opaque->serializer_size, b->as.opaque->serializer,
                           b->as.opaque->serializer_size);
    case PACKBUF_MEDIA: return mv_same_media(a->as.media, b->as.media);
    case PACKBUF_TENSOR: return mv_same_tensor(a->as.tensor, b->as.tensor);
    case PACKBUF_LIST:
        if (a->as.list.count != b->as.list.count) return 0;
        for (size_t i = 0; i < a->as.list.count; i++)
            if (!mv_same(&a->as.list.items[i], &b->as.list.items[i])) return 0;
        return 1;
    default: return mv_same_dict(a, b);
    }
}

/* ---- random numbers: xorshift64 ---- */

static uint64_t mv_seed = 88172645463325252u;

static inline uint64_t mv_random(void)
{
    mv_seed ^= mv_seed << 13;
    mv_seed ^= mv_seed >> 7;
    mv_seed ^= mv_seed << 17;
    return mv_seed;
}

static inline unsigned mv_below(unsigned n)
{
    return (unsigned)((mv_random() >> 11) % n);
}

/* ---- there and back ---- */

/* An error as text; static buffer. */
static const char *mv_error(const packbuf_error *error)
{
    static char line[300];
    packbuf_error_format(error, line, sizeof line);
    return line;
}

/* A batch and what became of it. */
typedef struct mv_trip {
    packbuf_arena arena, back;
    packbuf_batch batch;
    packbuf_error error;
    packbuf_view view;
    uint8_t *data;
    uint64_t size;
    const char *step; /* the one that failed */
} mv_trip;

static inline void mv_trip_begin(mv_trip *trip, uint64_t rows, const packbuf_options *options)
{
    memset(trip, 0, sizeof *trip);
    trip->error.message = "";
    packbuf_arena_init(&trip->arena, NULL);
    packbuf_arena_init(&trip->back, NULL);
    if (packbuf_batch_init(&trip->batch, rows, &trip->arena, options, &trip->error)) abort();
}

/* Measures, writes into memory of exactly that size, opens as a file, verifies everything. */
static inline packbuf_status mv_trip_pack(mv_trip *trip)
{
    uint64_t written = 0;
    packbuf_status status;
    trip->step = "measure";
    status = packbuf_measure(&trip->batch, &trip->size, &trip->error);
    if (status) return status;
    trip->step = "write";
    trip->data = (uint8_t *)malloc((size_t)trip->size);
    status = packbuf_write(&trip->batch, trip->data, trip->size, &written, &trip->error);
    if (status) return status;
    if (written != trip->size) return PACKBUF_CAPACITY;
    trip->step = "open";
    status = packbuf_open(&trip->view, trip->data, trip->size, PACKBUF_OPEN_EXACT, NULL, &trip->error);
    if (status) return status;
    trip->step = "verify";
    status = packbuf_verify(&trip->view, PACKBUF_LEVEL_FULL, &trip->error);
    if (!status) trip->step = "";
    return status;
}

static inline void mv_trip_end(mv_trip *trip)
{
    free(trip->data);
    packbuf_arena_free(&trip->arena);
    packbuf_arena_free(&trip->back);
}

#endif
