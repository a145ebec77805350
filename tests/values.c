/* Statuses and error lines, arenas, dtypes, values and their equality (section 16 of the spec). */
#include "internals.h"
#include "tap.h"

/* ---- statuses ---- */

static void line_is(const packbuf_error *error, const char *expected)
{
    char text[300];
    size_t length = packbuf_error_format(error, text, sizeof text);
    int exact = length == strlen(expected) && strcmp(text, expected) == 0;
    for (size_t size = 0; size <= length + 1; size++) { /* every cut has its NUL and writes nothing behind it */
        memset(text, '#', sizeof text);
        exact &= packbuf_error_format(error, text, size) == length && text[size] == '#';
        exact &= size == 0 || (text[size - 1] == 0 && strncmp(text, expected, size - 1) == 0);
    }
    tap_ok(exact && packbuf_error_format(error, NULL, 0) == length, "error line: %s", expected);
}

static void test_status(void)
{
    packbuf_error error;
    char path[400];
    memset(&error, 0, sizeof error);
    tap_ok(!strcmp(packbuf_status_name(PACKBUF_BAD_MAGIC), "BAD_MAGIC") &&
               !strcmp(packbuf_status_text(PACKBUF_BAD_MAGIC), "not a packed buffer"),
           "a status has a name and a text");
    tap_ok(
        !strcmp(packbuf_status_name((packbuf_status)39), "?") && !strcmp(packbuf_status_text((packbuf_status)39), "?"),
        "an unknown status has none");
    tap_ok(!strcmp(packbuf_rule_name(PACKBUF_RULE_H2), "H2") &&
               !strcmp(packbuf_rule_text(PACKBUF_RULE_H2), "the magic is right"),
           "a rule has a name and a text");
    tap_ok(!strcmp(packbuf_rule_name(PACKBUF_RULE_NONE), "?") && !strcmp(packbuf_rule_text((packbuf_rule)9999), "?"),
           "an unknown rule has none");
    packbuf_i_fail(&error, PACKBUF_BAD_HEADER, "text", 13, 3);
    error.rule = PACKBUF_RULE_H6;
    packbuf_i_set_path(&error, "a.b", 3);
    line_is(&error, "BAD_HEADER (H6) at byte 13, field a.b, row 3: a field of the header is wrong (the rule: text)");
    error.rule = PACKBUF_RULE_NONE;
    line_is(&error, "BAD_HEADER at byte 13, field a.b, row 3: text");
    error.offset = PACKBUF_NOWHERE;
    line_is(&error, "BAD_HEADER field a.b, row 3: text");
    error.path[0] = 0;
    line_is(&error, "BAD_HEADER row 3: text");
    error.row = PACKBUF_NOWHERE;
    error.message = NULL;
    line_is(&error, "BAD_HEADER: a field of the header is wrong");
    error.offset = UINT64_MAX - 1;
    line_is(&error, "BAD_HEADER at byte 18446744073709551614: a field of the header is wrong");
    packbuf_i_too_small(&error, "too small", PACKBUF_NOWHERE, 77);
    line_is(&error, "CAPACITY needs 77 bytes: too small");
    packbuf_i_truncated(&error, PACKBUF_RULE_H8, 100, 128);
    line_is(
        &error,
        "TRUNCATED (H8) at byte 100, needs 128 bytes: the bytes end too early (the rule: all total_length bytes are there)");
    packbuf_i_fail(&error, PACKBUF_SYSTEM, "text", 98, PACKBUF_NOWHERE);
    line_is(&error, "SYSTEM (error 98): text");
    error.row = 3;
    line_is(&error, "SYSTEM (error 98) row 3: text");
    memset(path, 'x', sizeof path);
    path[399 - 50] = '!';
    packbuf_i_set_path(&error, path, 399);
    tap_ok(strlen(error.path) == 119 && !strncmp(error.path, "...x", 4) && error.path[119 - 50] == '!',
           "a long path loses its front");
    packbuf_i_set_path(&error, path, 119);
    tap_ok(strlen(error.path) == 119 && error.path[0] == 'x', "a path of 119 bytes fits");
    for (int i = 0; i < 200; i++) memcpy(path + 2 * i, "\xC3\xA9", 2);
    packbuf_i_set_path(&error, path, 400);
    tap_ok(packbuf_i_utf8_valid((const uint8_t *)error.path, strlen(error.path)) == strlen(error.path) &&
               strlen(error.path) >= 117,
           "it is cut between characters");
    packbuf_i_set_path(NULL, path, 3);
    packbuf_i_set_path(&error, NULL, 0);
    tap_ok(error.path[0] == 0, "an empty path");
}

/* ---- arenas ---- */

typedef struct meter {
    uint64_t live, calls, fail_at;
    int wrong;
} meter;

/* Remembers each block's size in front of it, and checks what is given back. */
static void *meter_resize(void *context, void *memory, size_t old_size, size_t new_size)
{
    meter *m = (meter *)context;
    uint64_t *block = memory ? (uint64_t *)memory - 2 : NULL;
    if ((block ? block[0] : 0) != old_size) m->wrong = 1;
    if (new_size && ++m->calls == m->fail_at) return NULL;
    m->live = m->live - old_size + new_size;
    if (!new_size) {
        free(block);
        return NULL;
    }
    block = (uint64_t *)realloc(block, new_size + 16);
    if (!block) return NULL;
    block[0] = new_size;
    return block + 2;
}

static packbuf_allocator metered(meter *m)
{
    packbuf_allocator allocator;
    memset(m, 0, sizeof *m);
    allocator.resize = meter_resize;
    allocator.context = m;
    return allocator;
}

static void test_arena_growth(void)
{
    meter m;
    packbuf_allocator allocator = metered(&m);
    packbuf_arena arena;
    uint32_t random = 1;
    int aligned = 1;
    packbuf_arena_init(&arena, &allocator);
    tap_ok(m.calls == 0 && arena.limit == UINT64_MAX, "an arena starts empty");
    for (int i = 0; i < 3000; i++) {
        size_t size, alignment;
        unsigned char *p;
        random = random * 1664525u + 1013904223u;
        size = (random >> 8) % (i % 100 == 0 ? 100000 : 300);
        alignment = (size_t)1 << (random >> 28) % 13;
        p = (unsigned char *)packbuf_arena_alloc(&arena, size, alignment);
        aligned &= p && ((uintptr_t)p & (alignment - 1)) == 0;
        if (p) memset(p, i, size);
    }
    tap_ok(aligned, "3000 allocations are aligned");
    tap_ok(m.calls < 60, "in %d blocks", (int)m.calls);
    tap_ok(m.live < 3 * arena.used, "that are used well");
    tap_ok(packbuf_arena_alloc(&arena, 1, 3) == NULL && packbuf_arena_alloc(&arena, 1, 8192) == NULL &&
               packbuf_arena_alloc(&arena, 1, 0) == NULL,
           "bad alignments are refused");
    tap_ok(packbuf_arena_alloc(&arena, SIZE_MAX, 1) == NULL && packbuf_arena_alloc(&arena, SIZE_MAX - 20, 16) == NULL,
           "sizes that overflow are refused");
    packbuf_arena_free(&arena);
    tap_ok(m.live == 0 && !m.wrong && arena.used == 0, "all is given back, with the right sizes");
    tap_ok(packbuf_arena_alloc(&arena, 0, 64) != NULL, "size 0 has an address");
    packbuf_arena_free(&arena);
    m.calls = 0;
    m.fail_at = 1;
    tap_ok(packbuf_arena_alloc(&arena, 8, 8) == NULL && packbuf_arena_alloc(&arena, 8, 8) != NULL,
           "no memory is NULL, and may come later");
    packbuf_arena_free(&arena);
    packbuf_arena_init(&arena, NULL);
    tap_ok(packbuf_arena_alloc(&arena, 100000, 4096) != NULL, "the C library's allocator");
    packbuf_arena_free(&arena);
}

static void test_arena_limits(void)
{
    packbuf_arena arena;
    unsigned char memory[256], *p;
    packbuf_arena_init(&arena, NULL);
    arena.limit = 1000;
    tap_ok(packbuf_arena_alloc(&arena, 1001, 1) == NULL && packbuf_arena_alloc(&arena, 600, 1) &&
               !packbuf_arena_alloc(&arena, 401, 1) && packbuf_arena_alloc(&arena, 400, 1) &&
               !packbuf_arena_alloc(&arena, 1, 1),
           "a limit counts what is handed out");
    packbuf_arena_free(&arena);
    for (int i = 0; i < 100; i++) packbuf_arena_alloc(&arena, 1, 512);
    tap_ok(arena.used <= 1000, "and the padding before it");
    packbuf_arena_free(&arena);
    packbuf_arena_init_fixed(&arena, memory + 1, 200);
    memory[201] = 77;
    p = (unsigned char *)packbuf_arena_alloc(&arena, 100, 16);
    tap_ok(p && p >= memory + 1 && ((uintptr_t)p & 15) == 0, "a fixed arena hands out its memory");
    memset(p, 1, 100);
    tap_ok(packbuf_arena_alloc(&arena, 101, 1) == NULL &&
               (p = (unsigned char *)packbuf_arena_alloc(&arena, 80, 1)) != NULL,
           "until it is full");
    memset(p, 1, 80);
    tap_ok(memory[201] == 77, "and not beyond");
    packbuf_arena_free(&arena);
    tap_ok(packbuf_arena_alloc(&arena, 184, 1) == memory + 1, "then it can be used again");
    packbuf_arena_init_fixed(&arena, NULL, 0);
    tap_ok(packbuf_arena_alloc(&arena, 0, 1) == NULL && packbuf_arena_alloc(&arena, 1, 1) == NULL,
           "a fixed arena without memory has none");
    packbuf_arena_free(&arena);
}

static void test_scratch(void)
{
    packbuf_arena arena;
    unsigned char memory[512], *p, *q;
    packbuf_arena_init_fixed(&arena, memory, sizeof memory);
    p = (unsigned char *)packbuf_i_scratch(&arena, NULL, 0, 64);
    memset(p, 9, 64);
    q = (unsigned char *)packbuf_i_scratch(&arena, p, 64, 128);
    tap_ok(q == p, "scratch on a fixed arena grows in place");
    packbuf_arena_alloc(&arena, 8, 8);
    q = (unsigned char *)packbuf_i_scratch(&arena, p, 128, 200);
    tap_ok(q && q != p && q[63] == 9, "or moves when something is behind it");
    packbuf_i_scratch(&arena, q, 200, 0);
    tap_ok(arena.next <= q && packbuf_i_scratch(&arena, NULL, 0, 500) == NULL, "and is given back");
    packbuf_arena_init(&arena, NULL);
    arena.limit = 100;
    tap_ok(packbuf_i_scratch(&arena, NULL, 0, 101) == NULL, "scratch respects the limit");
    packbuf_arena_free(&arena);
}

/* ---- dtypes ---- */

static void test_dtypes(void)
{
  static const char *const names[] = {"int8",      "int16",      "int32",   "int64",         "uint8",      "uint16",
                                      "uint32",    "uint64",     "float16", "float32",       "float64",    "bfloat16",
                                      "complex64", "complex128", "bool",    "float8_e4m3fn", "float8_e5m2"};
  static const unsigned sizes[] = {1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, 8, 16, 1, 1, 1};
  int right = 1;
  packbuf_dtype dtype;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    right &= packbuf_dtype_parse(names[i], &dtype) && !strcmp(packbuf_dtype_name(dtype), names[i]) &&
             packbuf_i_dtype_bytes(dtype) == sizes[i] && packbuf_i_dtype_known(dtype) && dtype.lanes == 1;
  tap_ok(right, "each dtype has a name, a size and a way back");
  tap_ok(!packbuf_dtype_parse("float", &dtype) && !packbuf_dtype_parse("", &dtype) &&
             !packbuf_dtype_parse("int640", &dtype),
         "other names are none");
  tap_ok(!packbuf_i_dtype_known(packbuf_dtype_of(PACKBUF_DTYPE_UINT, 1)) &&
             !packbuf_dtype_name(packbuf_dtype_of(PACKBUF_DTYPE_INT, 4)),
         "bits are no dtype of a leaf");
  dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
  tap_ok(dtype.code == 2 && dtype.bits == 32 && dtype.lanes == 1, "packbuf_dtype_of");
  dtype.lanes = 4;
  tap_ok(packbuf_dtype_name(dtype) == NULL, "lanes other than 1 are unknown");
}

/* ---- equality ---- */

static int equal(packbuf_value a, packbuf_value b)
{
    int there = packbuf_equal(&a, &b), back = packbuf_equal(&b, &a);
    return there == back ? there : -1;
}

static double from_bits(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, 8);
    return f;
}

static void test_kinds_differ(void)
{
    packbuf_media media = packbuf_media_of("x", 1, NULL);
    packbuf_opaque opaque = {"x", 1, "p", 1};
    packbuf_tensor tensor;
    packbuf_value v[20];
    size_t n = 0;
    int right = 1;
    static const int64_t one = 1;
    memset(&tensor, 0, sizeof tensor);
    tensor.data = &one;
    tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
    tensor.form = PACKBUF_FORM_SCALAR;
    v[n++] = packbuf_null();
    v[n++] = packbuf_missing();
    v[n++] = packbuf_list(NULL, 0);
    v[n++] = packbuf_dict(NULL, 0);
    v[n++] = packbuf_string("");
    v[n++] = packbuf_bytes("", 0);
    v[n++] = packbuf_bool(0);
    v[n++] = packbuf_bool(7);
    v[n++] = packbuf_int(0);
    v[n++] = packbuf_int(1);
    v[n++] = packbuf_float(0.0);
    v[n++] = packbuf_float(-0.0);
    v[n++] = packbuf_float(1.0);
    v[n++] = packbuf_string("1");
    v[n++] = packbuf_string("x");
    v[n++] = packbuf_bytes("x", 1);
    v[n++] = packbuf_media_value(&media);
    v[n++] = packbuf_opaque_value(&opaque);
    v[n++] = packbuf_tensor_value(&tensor);
    v[n++] = packbuf_bigint("18446744073709551616");
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) right &= packbuf_equal(&v[i], &v[j]) == (i == j);
    tap_ok(right && n == 20, "twenty values, each equal to itself only");
    tap_ok(sizeof(packbuf_value) == 24 || sizeof(void *) != 8, "a value takes 24 bytes");
}

static void test_numbers_equal(void)
{
  tap_ok(equal(packbuf_int(5), packbuf_uint(5)) == 1 && equal(packbuf_int(-1), packbuf_uint(UINT64_MAX)) == 0,
         "int64 and uint64 are one type");
  tap_ok(equal(packbuf_bigint("5"), packbuf_int(5)) == 1 &&
             equal(packbuf_bigint("18446744073709551615"), packbuf_uint(UINT64_MAX)) == 1 &&
             equal(packbuf_bigint("-9223372036854775808"), packbuf_int(INT64_MIN)) == 1,
         "and decimal text");
  tap_ok(equal(packbuf_bigint("18446744073709551616"), packbuf_bigint("18446744073709551616")) == 1 &&
             equal(packbuf_bigint("18446744073709551616"), packbuf_bigint("18446744073709551617")) == 0 &&
             equal(packbuf_bigint("-18446744073709551616"), packbuf_bigint("18446744073709551616")) == 0 &&
             equal(packbuf_bigint("x"), packbuf_int(0)) == 0,
         "beyond 64 bits the text decides");
  tap_ok(equal(packbuf_float(from_bits(0x7FF8000000000000u)), packbuf_float(from_bits(0x7FF8000000000000u))) == 1 &&
             equal(packbuf_float(from_bits(0x7FF8000000000000u)), packbuf_float(from_bits(0x7FF8000000000001u))) == 0,
         "floats are equal bit for bit");
}

static void test_containers_equal(void)
{
    enum { N = 500 };
    static packbuf_entry a[N], b[N];
    static char names[N][8];
    packbuf_value items[3], other[3], dict;
    items[0] = other[0] = packbuf_int(1);
    items[1] = other[1] = packbuf_list(items, 1);
    items[2] = other[2] = packbuf_null();
    tap_ok(equal(packbuf_list(items, 3), packbuf_list(other, 3)) == 1, "equal lists");
    other[2] = packbuf_missing();
    tap_ok(equal(packbuf_list(items, 3), packbuf_list(other, 3)) == 0 &&
               equal(packbuf_list(items, 2), packbuf_list(other, 3)) == 0,
           "lists that differ");
    for (int i = 0; i < N; i++) {
        names[i][0] = 'k';
        names[i][1] = (char)('0' + i / 100);
        names[i][2] = (char)('0' + i / 10 % 10);
        names[i][3] = (char)('0' + i % 10);
        a[i].key = packbuf_string(names[i]);
        a[i].value = packbuf_int(i);
        b[(i * 7 + 3) % N] = a[i];
    }
    dict = packbuf_dict(a, N);
    tap_ok(equal(dict, packbuf_dict(b, N)) == 1, "the order of keys does not count");
    b[17].value = packbuf_int(-1);
    tap_ok(equal(dict, packbuf_dict(b, N)) == 0 && equal(packbuf_dict(a, 9), packbuf_dict(a, 10)) == 0,
           "values and the number of keys do");
    tap_ok(packbuf_dict_get(&dict, "k250") == &a[250].value && packbuf_dict_get(&dict, "k25") == NULL &&
               packbuf_dict_get(&items[0], "k250") == NULL,
           "packbuf_dict_get");
    b[0].key = packbuf_bytes("k000", 4);
    dict = packbuf_dict(b, 1);
    tap_ok(packbuf_dict_get(&dict, "k000") == NULL, "finds string keys only");
}

static void test_tensors_equal(void)
{
  static const int16_t rows[2][3] = {{1, 2, 3}, {4, 5, 6}}, columns[3][2] = {{1, 4}, {2, 5}, {3, 6}}, constant[1] = {7},
                       sevens[4] = {7, 7, 7, 7};
  static const uint64_t shape[2] = {2, 3}, flat[1] = {6}, four[1] = {4}, none[2] = {0, 3};
  static const int64_t transposed[2] = {2, 4}, backwards[2] = {-6, -2}, zero[1] = {0};
  static const packbuf_device device = {2, 0, NULL, NULL};
  packbuf_tensor a, b;
  packbuf_value x, y;
  memset(&a, 0, sizeof a);
  a.data = rows;
  a.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 16);
  a.rank = 2;
  a.form = PACKBUF_FORM_TENSOR;
  a.shape = shape;
  b = a;
  x = packbuf_tensor_value(&a);
  y = packbuf_tensor_value(&b);
  b.form = PACKBUF_FORM_NATURAL;
  tap_ok(equal(x, y) == 1, "the natural form of a tensor is a tensor");
  b.form = PACKBUF_FORM_ARRAY;
  tap_ok(equal(x, y) == 0, "forms differ");
  b.form = PACKBUF_FORM_TENSOR;
  b.data = columns;
  b.strides = transposed;
  tap_ok(equal(x, y) == 1, "strides do not count");
  b.data = &rows[1][2];
  b.strides = backwards;
  tap_ok(equal(x, y) == 0, "elements do");
  b = a;
  b.dtype.code = PACKBUF_DTYPE_UINT;
  tap_ok(equal(x, y) == 0, "dtypes differ");
  b = a;
  b.rank = 1;
  b.shape = flat;
  tap_ok(equal(x, y) == 0, "shapes differ");
  b = a;
  b.device = &device;
  tap_ok(equal(x, y) == 0, "a device's memory is not looked at");
  a.data = constant;
  a.rank = 1;
  a.shape = four;
  a.strides = zero;
  b = a;
  b.data = sevens;
  b.strides = NULL;
  tap_ok(equal(x, y) == 1, "a stride of 0");
  a.rank = b.rank = 2;
  a.shape = b.shape = none;
  a.strides = b.strides = NULL;
  a.data = NULL;
  tap_ok(equal(x, y) == 1, "tensors without elements");
  b.dtype = a.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 4);
  tap_ok(equal(x, y) == 0, "an unknown dtype equals nothing");
}

static void test_media_equal(void)
{
    packbuf_media a = packbuf_media_of("x", 1, "image/png"), b = a;
    packbuf_value x = packbuf_media_value(&a), y = packbuf_media_value(&b);
    tap_ok(a.mime_size == 9 && a.height == -1 && a.width == -1 && a.channels == -1 && !a.mode && !a.has_rate,
           "packbuf_media_of has no other attributes");
    tap_ok(equal(x, y) == 1, "equal media");
    b.width = 3;
    tap_ok(equal(x, y) == 0, "width differs");
    b = a;
    b.mime = NULL;
    tap_ok(equal(x, y) == 0, "an absent attribute differs");
    b = a;
    b.mime_size = 8;
    tap_ok(equal(x, y) == 0, "text differs");
    b = a;
    b.has_rate = 1;
    tap_ok(equal(x, y) == 0, "rate differs");
    a.has_rate = 1;
    tap_ok(equal(x, y) == 1, "the same rate");
    b.mode = "L";
    b.mode_size = 1;
    tap_ok(equal(x, y) == 0, "mode differs");
}

int main(void)
{
    test_status();
    test_arena_growth();
    test_arena_limits();
    test_scratch();
    test_dtypes();
    test_kinds_differ();
    test_numbers_equal();
    test_containers_equal();
    test_tensors_equal();
    test_media_equal();
    return tap_plan_done();
}
