/* The 170 edge columns on which the codecs that packbuf follows were measured: each comes back exactly in strict mode,
 * or is refused with the error named here. The originals lose or refuse a third of them. The columns stand in the
 * notation of matrix_values.h; those that only Python can express say why. (What inference decides for them is
 * tests/infer_replay.c's matter; here the node's kind and codec are those in the packed buffer.) */
#include "../packbuf.h"
#include "tap.h"
#include "matrix_values.h"

typedef enum outcome { OUT, LEAF, DICT, LIST, REFUSED } outcome;

typedef struct edge {
    int number;
    const char *column; /* NULL: C cannot express it; @name: made by make_column */
    outcome want;
    packbuf_codec codec;
    packbuf_status status;
    const char *note;
} edge;

static const edge edges[] = {
    {1, "1 2 3", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {2, "true false", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {3, "true 2", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {4, "true 2.5", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {5, "1 2.5", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {6, "9223372036854775807", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {7, "9223372036854775808", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {8, "9223372036854775808 -1", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {9, "18446744073709551615", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {10, "18446744073709551616", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {11, "18446744073709551616 1", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {12, "-9223372036854775809", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {13, "18446744073709551616 1.0", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {14, "9007199254740993 0.5", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {15, "s.f32(1.5) 2.1", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {16, "s.i8(1) 300", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {17, "s.i8(1) s.u8(200)", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {18, "s.u64(9223372036854775813) s.i64(-1)", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {19, "s.b8(1)", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {20, "s.b8(1) 1", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {21, "s.f16(1)", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {22, "s.c128(1 2)", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, "a Python complex is a complex128 scalar"},
    {23, "s.c64(1 0)", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {24, "nan inf", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {25, "-0.0", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {26, "null 1", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {27, "null true", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, NULL},
    {28, "null null", LEAF, PACKBUF_CODEC_NULL, PACKBUF_OK, NULL},
    {29, "", LEAF, PACKBUF_CODEC_NULL, PACKBUF_OK, NULL},
    {30, "null", LEAF, PACKBUF_CODEC_NULL, PACKBUF_OK, NULL},
    {31, "\"a\" 1", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {32, "\"a\" null", LEAF, PACKBUF_CODEC_UTF8_RAGGED, PACKBUF_OK, NULL},
    {33, "\"a\" b\"b\"", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {34, "\"\" \"\"", LEAF, PACKBUF_CODEC_UTF8_RAGGED, PACKBUF_OK, NULL},
    {35, "\"\\xed\\xa0\\x80\"", REFUSED, 0, PACKBUF_BAD_UTF8, NULL},
    {36, "{\"a\" \"\\xed\\xa0\\x80\"}", REFUSED, 0, PACKBUF_BAD_UTF8, NULL},
    {37, "b\"a\" b\"\"", LEAF, PACKBUF_CODEC_BYTES_RAGGED, PACKBUF_OK, NULL},
    {38, "b\"x\" b\"yz\" null", LEAF, PACKBUF_CODEC_BYTES_RAGGED, PACKBUF_OK, "bytearray and memoryview are bytes"},
    {39, "[b\"a\" b\"b\"] [b\"c\"]", LEAF, PACKBUF_CODEC_MEDIA_LIST_RAGGED, PACKBUF_OK, NULL},
    {40, "[b\"a\"] []", LEAF, PACKBUF_CODEC_MEDIA_LIST_RAGGED, PACKBUF_OK, NULL},
    {41, "[] []", LIST, 0, PACKBUF_OK, NULL},
    {42, "[] null", LIST, 0, PACKBUF_OK, NULL},
    {43, "[] []", LIST, 0, PACKBUF_OK, "a tuple is a list"},
    {44, "[b\"a\"] [b\"b\" b\"c\"]", LEAF, PACKBUF_CODEC_MEDIA_LIST_RAGGED, PACKBUF_OK, "a tuple is a list"},
    {45, "[b\"a\" \"s\"]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {46, "{\"k\" b\"x\"} {\"k\" b\"y\"}", DICT, 0, PACKBUF_OK, NULL},
    {47, "[b\"a\" null]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {48, "[1 2 3] [4 5]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {49, "[1] null", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {50, "[true false] [true]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {51, "[true 2]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {52, "[true] [2]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {53, "[1] [2.5]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {54, "[1 2] []", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {55, "[1 null 3]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {56, "[1.0 nan]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {57, "[\"a\" \"b\"] [\"c\"]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {58, "[[1 2] [3]] [[4]]", LIST, 0, PACKBUF_OK, NULL},
    {59, "[[1 2] [3 4]] [[5 6] [7 8]]", LIST, 0, PACKBUF_OK, NULL},
    {60, "[1 2] [3]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, "a tuple is a list"},
    {61, "[1] [2]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, "a tuple is a list"},
    {62, "[{\"a\" 1}*9]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {63, "[{\"a\" 1}*8]", LIST, 0, PACKBUF_OK, NULL},
    {64, "[null] [null null]", LIST, 0, PACKBUF_OK, NULL},
    {65, "[{\"k\" 1} null] [{\"k\" 2}]", LIST, 0, PACKBUF_OK, NULL},
    {66, "[9223372036854775808]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {67, "[-1 9223372036854775808]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {68, "[18446744073709551616]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {69, "[-1] [9223372036854775808]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {70, "[1 [2]]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {71, "[1 \"a\"]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {72, "[s.c128(0 1)]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, "a Python complex is a complex128 scalar"},
    {73, "[s.f32(1.5)]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {74, "[a.i64[3](0 1 2)] [a.i64[2](0 1)]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {75, "[0 1 2 3 4 5 6 7 8]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {76, "[[1]*9]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {77, "a.i32[3](0 1 2) a.i32[2](0 1)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {78, "a.i32[3](0 1 2) a.f64[2](0 1)", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {79, "a.i64[3](0 1 2) a.i64[2 2](0 1 2 3)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {80, "a.b8[2](1 0)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {81, NULL, OUT, 0, PACKBUF_OK, "an array of texts has no dtype of section 8: the Python layer makes a list of it"},
    {82, NULL, OUT, 0, PACKBUF_OK,
     "an array of objects has no dtype of section 8: the Python layer makes a list of it"},
    {83, "a.i64[](1) a.i64[](2)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {84, "a.i64[2](0 1) [1 2]", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {85, NULL, OUT, 0, PACKBUF_OK,
     "datetime64 is an int64 array with a logical type, which the Python layer asks for by schema (tests/storage.c has the schema)"},
    {86, NULL, OUT, 0, PACKBUF_OK,
     "a structured dtype is not in section 8: the Python layer refuses it or makes one field a member"},
    {87, "a.f32[0]()", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {88, "a.f32[2 0]() a.f32[3 0]()", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {89, "a.i32[3](0 1 2)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK,
     "arrays are in native byte order: the Python layer swaps, the values are tested"},
    {90, "a.i64F[2 3](0 1 2 3 4 5)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {91, "a.f16[2](0 1)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {92, "a.c128[1](0 1)", LEAF, PACKBUF_CODEC_TYPED_RAGGED, PACKBUF_OK, NULL},
    {93, "a.u64[1](9223372036854775808) a.i64[1](-1)", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {94, "t.i64[2](1 2) t.i64[1](3)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {95, "t.f32[1](1) t.i64[1](1)", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {96, "t.i64[1](1) t.i64[1 2](1 2)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {97, "t.i64[](1) t.i64[](2)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {98, "t.bf16[2](0 0x3f80)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {99, "t.e4[2](0 0x38)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {100, "t.b8[1](1)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {101, "t.f16[2](0 0)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {102, "t.i64[1](1) null", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {103, "t.i64[1](1) [1]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {104, "[t.i64[1](1)] [t.i64[2](2 3)]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {105, "t.f32[0]()", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {106, "t.i64F[3 2](0 3 1 4 2 5)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {107, "t.c64[2](0 0 0 0)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {108, "t.f32[2](1 1)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, "the grad flag is not kept (section 16)"},
    {109, "{\"a\" t.i64[1](1)} {\"a\" t.i64[2](1 2)}", DICT, 0, PACKBUF_OK, NULL},
    {110, NULL, OUT, 0, PACKBUF_OK,
     "packbuf_tensor cannot describe a sparse tensor: the Python layer makes it dense or refuses it"},
    {111, "t.u16[2](0 0)", LEAF, PACKBUF_CODEC_RAGGED_TENSOR, PACKBUF_OK, NULL},
    {112, "{\"a\" t.bf16[2](0 0)}", DICT, 0, PACKBUF_OK, NULL},
    {113, "{\"a\" t.i64[1](1)} {\"a\" t.f32[1](1)}", DICT, 0, PACKBUF_OK, NULL},
    {114, "{\"a\" 1} {\"b\" 2}", DICT, 0, PACKBUF_OK, NULL},
    {115, "{\"x\" 1} null", DICT, 0, PACKBUF_OK, NULL},
    {116, "{} {}", DICT, 0, PACKBUF_OK, NULL},
    {117, "{} null", DICT, 0, PACKBUF_OK, NULL},
    {118, "{1 2}", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {119, "{\"a\" 1 2 3}", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {120, "{\"a.b\" 1}", DICT, 0, PACKBUF_OK, NULL},
    {121, "{\"a[0]\" 1}", DICT, 0, PACKBUF_OK, NULL},
    {122, "{\"a\\\\b\" 1}", DICT, 0, PACKBUF_OK, NULL},
    {123, "{\"a]\" 1}", DICT, 0, PACKBUF_OK, NULL},
    {124, "{\"\" 1}", DICT, 0, PACKBUF_OK, NULL},
    {125, "{\"\" b\"x\"}", DICT, 0, PACKBUF_OK, NULL},
    {126, "{\"\" {\"k\" b\"x\"}} {}", DICT, 0, PACKBUF_OK, "with the row of rule 64 that the original changes"},
    {127, "{\"a/b\" b\"x\"}", DICT, 0, PACKBUF_OK, NULL},
    {128, "@keys64", DICT, 0, PACKBUF_OK, NULL},
    {129, "@keys65", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {130, "{\"a\" 1} [1]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {131, "{\"a\" 1} 1", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {132, "{\"a\" {\"b\" 1}} {\"a\" null} {}", DICT, 0, PACKBUF_OK, NULL},
    {133, "{\"x\" null} {\"y\" 2} null", DICT, 0, PACKBUF_OK, NULL},
    {134, "{\"a\" 1}", DICT, 0, PACKBUF_OK, "a subclass of dict is not kept (section 16)"},
    {135, "{\"b\" 1 \"a\" 2}", DICT, 0, PACKBUF_OK, NULL},
    {136, "{\"a\" 1} {\"a\" \"s\"}", DICT, 0, PACKBUF_OK, NULL},
    {137, "{\"a\" o\"pickle5:\\x80\\x05N.\"}", DICT, 0, PACKBUF_OK, "any other object is opaque"},
    {138, "{\"b\" b\"x\" \"n\" {\"z\" 1}} {\"n\" null} null {\"n\" {}}", DICT, 0, PACKBUF_OK, NULL},
    {139, "{\"a\" {\"b\" b\"1\"} \"a.b\" b\"2\"}", DICT, 0, PACKBUF_OK, NULL},
    {140, "{\"\\xc3\\xa9\" b\"x\"}", DICT, 0, PACKBUF_OK, NULL},
    {141, "{\"l\" [{\"p\" b\"x\"} null]} {\"l\" []} {\"l\" null} {}", DICT, 0, PACKBUF_OK, NULL},
    {142, "[{\"p\" b\"x\"} null] [null]", LIST, 0, PACKBUF_OK, NULL},
    {143, "[{\"p\" b\"x\"}] [{\"p\" b\"y\"}]", LIST, 0, PACKBUF_OK, "a tuple is a list"},
    {144, "{\"a\" [1 nan \"x\"]}", DICT, 0, PACKBUF_OK, NULL},
    {145, "[1 \"a\" {\"k\" 2}] [\"b\"]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {146, "@sample146", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {147, "@sample147", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {148, "@sample148", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {149, "@late149", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {150, "o\"pickle5:set\"", LEAF, PACKBUF_CODEC_OPAQUE_RAGGED, PACKBUF_OK, "a set is opaque"},
    {151, "[1180591620717411303424 \"a\"]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {152, "1 \"a\" null", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {153, "1.5 \"x\"", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {154, "[s.i64(1) \"a\"]", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {155, "[\"a\" \"b\"]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, "a tuple is a list"},
    {156, "{1 b\"x\"}", LEAF, PACKBUF_CODEC_MSGPACK_RAGGED, PACKBUF_OK, NULL},
    {157, "o\"pickle5:object\"", LEAF, PACKBUF_CODEC_OPAQUE_RAGGED, PACKBUF_OK, "any other object is opaque"},
    {158, "o\"pickle5:datetime\"", LEAF, PACKBUF_CODEC_OPAQUE_RAGGED, PACKBUF_OK, "any other object is opaque"},
    {159, "o\"pickle5:Decimal\"", LEAF, PACKBUF_CODEC_OPAQUE_RAGGED, PACKBUF_OK, "any other object is opaque"},
    {160, "200", LEAF, PACKBUF_CODEC_NDARRAY, PACKBUF_OK, "a subclass of int is not kept (section 16)"},
    {161, "\"x\"", LEAF, PACKBUF_CODEC_UTF8_RAGGED, PACKBUF_OK, "a subclass of str is not kept (section 16)"},
    {162, "[\"a\" 18446744073709551615]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {163, "[\"a\" 18446744073709551616]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {164, "[true \"a\"] [1 \"b\"]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {165, "1 [2]", LEAF, PACKBUF_CODEC_JSON_RAGGED, PACKBUF_OK, NULL},
    {166, "@deep32", DICT, 0, PACKBUF_OK, NULL},
    {167, "@deep33", REFUSED, 0, PACKBUF_DEPTH, NULL},
    {168, "@deepl40", REFUSED, 0, PACKBUF_DEPTH, NULL},
    {169, "@deepl31", LIST, 0, PACKBUF_OK, NULL},
    {170, "@selfref", REFUSED, 0, PACKBUF_DEPTH, NULL},
};

static packbuf_value long_string(size_t size)
{
    char *text = (char *)mv_alloc(size + 1);
    memset(text, 'x', size);
    text[size] = 0;
    return packbuf_string_n(text, size);
}

static packbuf_value list_of_one(packbuf_value item)
{
    return packbuf_list((packbuf_value *)mv_copy(&item, sizeof item), 1);
}

static packbuf_value dict_of_one(const char *key, packbuf_value value)
{
    packbuf_value pair[2];
    pair[0] = packbuf_string(key);
    pair[1] = value;
    return mv_dict_of(pair, 2);
}

static packbuf_value many_keys(unsigned count)
{
    packbuf_value *pairs = (packbuf_value *)mv_alloc(2 * count * sizeof *pairs);
    for (unsigned i = 0; i < count; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "k%u", i);
        pairs[2 * i] = packbuf_string_n((char *)mv_copy(key, (size_t)size), (size_t)size);
        pairs[2 * i + 1] = packbuf_int(i);
    }
    return mv_dict_of(pairs, 2 * count);
}

/* The columns that are too long to write down. */
static packbuf_value *make_column(const char *name, size_t *rows)
{
    packbuf_value *column;
    packbuf_value value = packbuf_int(1);
    *rows = 1;
    if (strcmp(name, "@sample148") == 0) *rows = 128;
    if (strcmp(name, "@sample147") == 0) *rows = 129;
    if (strcmp(name, "@late149") == 0) *rows = 201;
    column = (packbuf_value *)mv_alloc(*rows * sizeof *column);
    if (strncmp(name, "@keys", 5) == 0) {
        column[0] = many_keys((unsigned)atoi(name + 5));
    } else if (strncmp(name, "@deepl", 6) == 0) {
        for (int i = atoi(name + 6); i > 0; i--) value = list_of_one(value);
        column[0] = value;
    } else if (strncmp(name, "@deep", 5) == 0) {
        for (int i = atoi(name + 5); i > 0; i--) value = dict_of_one("a", value);
        column[0] = value;
    } else if (strcmp(name, "@sample146") == 0) {
        column[0] = list_of_one(long_string(((size_t)1 << 20) + 1));
    } else if (strcmp(name, "@sample148") == 0) {
        for (size_t i = 0; i < 128; i++) column[i] = list_of_one(long_string(8190));
    } else if (strcmp(name, "@sample147") == 0) {
        for (size_t i = 0; i < 128; i++) column[i] = list_of_one(packbuf_string("x"));
        column[128] = list_of_one(long_string((size_t)1 << 21));
    } else if (strcmp(name, "@late149") == 0) {
        mv_text opaque = {"o\"pickle5:object\""};
        for (size_t i = 0; i < 200; i++) column[i] = dict_of_one("ok", packbuf_int((int64_t)i));
        column[200] = mv_value(&opaque);
    } else { /* a list that has itself as its second item */
        packbuf_value *items = (packbuf_value *)mv_alloc(2 * sizeof *items);
        items[0] = packbuf_int(1);
        items[1] = packbuf_list(items, 2);
        column[0] = items[1];
    }
    return column;
}

/* Packs the column as the one field of a batch, reads it back and compares. Returns what went wrong, or NULL. */
static const char *there_and_back(const edge *e, const packbuf_value *column, size_t rows, mv_trip *trip)
{
    packbuf_value *back = (packbuf_value *)mv_alloc((rows + 1) * sizeof *back);
    packbuf_status status = packbuf_add_values(&trip->batch, "r", column, &trip->error);
    packbuf_node node;
    static char text[400];
    if (!status) status = mv_trip_pack(trip);
    if (e->want == REFUSED) return status == e->status ? NULL : "it was not refused so";
    if (!status) status = packbuf_find(&trip->view, 0, "r", &node, &trip->error);
    if (!status) status = packbuf_read_column(&trip->view, node.index, 0, rows, &trip->back, back, &trip->error);
    if (status) {
        snprintf(text, sizeof text, "%s: %s", trip->step, mv_error(&trip->error));
        return text;
    }
    if (e->want == LEAF && (node.kind != PACKBUF_LEAF || node.codec != (uint8_t)e->codec)) {
      snprintf(text, sizeof text, "kind %u, codec %s", (unsigned)node.kind,
               node.codec ? packbuf_codec_name((packbuf_codec)node.codec) : "-");
      return text;
    }
    if (e->want != LEAF && node.kind != (e->want == DICT ? PACKBUF_NODE_DICT : PACKBUF_NODE_LIST))
      return "the column did not expand as it should";
    if (node.rows != rows) return "another number of rows";
    for (size_t i = 0; i < rows; i++) {
        snprintf(text, sizeof text, "row %zu came back different", i);
        if (!mv_same(&column[i], &back[i])) return text;
        snprintf(text, sizeof text, "packbuf_equal does not find row %zu equal", i);
        if (!packbuf_equal(&column[i], &back[i])) return text;
    }
    return NULL;
}

static void test_edge(const edge *e)
{
    const packbuf_value *column;
    const char *wrong;
    mv_trip trip;
    size_t rows;
    if (!e->column) {
        tap_note("%d: not in C: %s", e->number, e->note);
        return;
    }
    column = e->column[0] == '@' ? make_column(e->column, &rows) : mv_column(e->column, &rows);
    mv_trip_begin(&trip, rows, NULL);
    wrong = there_and_back(e, column, rows, &trip);
    tap_ok(wrong == NULL, "%d: %s %s%s%s%s%s", e->number, e->column, e->want == REFUSED ? "is refused: " : "comes back",
           e->want == REFUSED ? packbuf_status_name(e->status) : "", e->note ? "; " : "", e->note ? e->note : "",
           wrong ? "" : "");
    if (wrong) tap_note("%s", wrong);
    if (!wrong && e->want == REFUSED)
      tap_ok((e->status == PACKBUF_DEPTH || trip.error.row == 0) && strncmp(trip.error.path, "r", 1) == 0,
             "%d: the error names the field and the row: %s", e->number, mv_error(&trip.error));
    mv_trip_end(&trip);
    mv_free();
}

/* Pairs that the originals make equal: the comparison keeps them apart, and packbuf_equal agrees with it. */
static void test_comparison(void)
{
  static const char *const pairs[] = {"1 true",
                                      "1 1.0",
                                      "true 1.0",
                                      "1 \"1\"",
                                      "null missing",
                                      "null []",
                                      "[] {}",
                                      "[] \"\"",
                                      "\"\" b\"\"",
                                      "0.0 -0.0",
                                      "nan nan:7ff8000000000001",
                                      "[1 2] a.i64[2](1 2)",
                                      "a.i64[2](1 2) t.i64[2](1 2)",
                                      "a.i64[2](1 2) a.i32[2](1 2)",
                                      "s.f64(1) 1.0",
                                      "a.i64[1](1) a.i64[](1)",
                                      "a.f32[2 0]() a.f32[3 0]()",
                                      "m\":a\" b\"a\"",
                                      "m\"x:a\" m\":a\"",
                                      "o\"a:b\" o\"c:b\"",
                                      "{\"a\" 1} {\"a\" 1 \"b\" null}",
                                      "{\"a\" null} {}",
                                      "{1 2} {\"1\" 2}",
                                      "{1 2} {true 2}",
                                      "9223372036854775808 -9223372036854775808",
                                      "[1] [1 2]",
                                      "18446744073709551616 18446744073709551617",
                                      "a.i64[2](1 2) a.i64[2](1 3)"};
  static const char *const equals[] = {"nan nan",
                                       "{\"a\" 1 \"b\" 2} {\"b\" 2 \"a\" 1}",
                                       "a.i64[2 3](0 1 2 3 4 5) a.i64F[2 3](0 1 2 3 4 5)",
                                       "[] []",
                                       "{} {}",
                                       "18446744073709551616 18446744073709551616"};
  size_t rows;
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    packbuf_value *two = mv_column(pairs[i], &rows);
    tap_ok(
        rows == 2 && !mv_same(&two[0], &two[1]) && !packbuf_equal(&two[0], &two[1]) && !packbuf_equal(&two[1], &two[0]),
        "different: %s", pairs[i]);
    }
    for (size_t i = 0; i < sizeof equals / sizeof *equals; i++) {
        packbuf_value *two = mv_column(equals[i], &rows);
        tap_ok(rows == 2 && mv_same(&two[0], &two[1]) && packbuf_equal(&two[0], &two[1]), "equal: %s", equals[i]);
    }
    {
        packbuf_value a = packbuf_int(5), b = packbuf_uint(5);
        tap_ok(mv_same(&a, &b) && packbuf_equal(&a, &b) && packbuf_equal(&b, &a), "equal: 5 as int64 and as uint64");
    }
    mv_free();
}

int main(void)
{
    test_comparison();
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) test_edge(&edges[i]);
    return tap_plan_done();
}
