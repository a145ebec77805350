/* JSON cells (section 11 of the spec): the parser, the checker, the writer. Whatever is parsed is checked too: both
 * must say the same. */
#include "internals.h"
#include "tap.h"

#define JSON_MAX 1200000
static char big[JSON_MAX];

/* Parses `size` bytes in an allocation of that size, checks them, and compares the two answers. The value lives until
 * the next call. */
static packbuf_arena arena;
static char *kept;

static packbuf_status parse(const char *text, size_t size, unsigned depth, packbuf_value *value, uint64_t *offset)
{
    packbuf_error error, checked;
    packbuf_status status, check;
    if (kept) packbuf_arena_free(&arena);
    free(kept);
    kept = (char *)malloc(size + !size);
    memcpy(kept, text, size);
    packbuf_arena_init(&arena, NULL);
    status = packbuf_json_parse(kept, size, depth, &arena, value, &error);
    check = packbuf_i_json_check((const uint8_t *)kept, size, depth, 0, &checked);
    *offset = status ? error.offset : 0;
    if (check == PACKBUF_LIMIT) return status; /* without memory it may give up */
    if (status != check || (status && (error.code != status || error.offset != checked.offset ||
                                       strcmp(error.message, checked.message) != 0)))
      return (packbuf_status)-1;
    if (status && packbuf_json_parse(kept, size, depth, &arena, value, NULL) != status) return (packbuf_status)-2;
    return status;
}

static void bad(const char *text, packbuf_status expected, uint64_t at)
{
    packbuf_value value;
    uint64_t offset;
    packbuf_status status = parse(text, strlen(text), 0, &value, &offset);
    tap_ok(status == expected && offset == at, "%s at %d: %s", packbuf_status_name(expected), (int)at,
           strchr(text, '\n') ? "(lines)" : text);
    if (status != expected || offset != at) tap_note("got %s at %d", packbuf_status_name(status), (int)offset);
}

/* `text` parses, is written as `canonical`, and reads back equal. */
static void good(const char *text, const char *canonical)
{
    packbuf_value value, again;
    packbuf_arena other;
    packbuf_status status;
    uint64_t offset;
    char out[2000];
    size_t size = 0, measured = 0;
    int right;
    status = parse(text, strlen(text), 0, &value, &offset);
    right = !status && !packbuf_json_write(&value, NULL, 0, &measured, NULL) &&
            !packbuf_json_write(&value, out, sizeof out, &size, NULL);
    right = right && size == measured && size == strlen(canonical) && memcmp(out, canonical, size) == 0;
    packbuf_arena_init(&other, NULL);
    right = right && !packbuf_json_parse(out, size, 0, &other, &again, NULL) && packbuf_equal(&value, &again);
    packbuf_arena_free(&other);
    tap_ok(right, "%s", strchr(text, '\n') ? "(lines)" : text);
    if (!right) tap_note("got %s at %d: %.*s", packbuf_status_name(status), (int)offset, (int)size, out);
}

static double from_bits(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, 8);
    return f;
}

static void test_numbers(void)
{
  static const char *const same[] = {"0",
                                     "-1",
                                     "9223372036854775807",
                                     "-9223372036854775808",
                                     "9223372036854775808",
                                     "18446744073709551615",
                                     "18446744073709551616",
                                     "-9223372036854775809",
                                     "123456789012345678901234567890123456789012345678901234567890",
                                     "1.0",
                                     "-0.0",
                                     "0.1",
                                     "1e+16",
                                     "1e-07",
                                     "1.7976931348623157e+308",
                                     "5e-324",
                                     "NaN",
                                     "Infinity",
                                     "-Infinity",
                                     "123456789012345678",
                                     "-999999999999999999",
                                     "1000000000000000000"};
  packbuf_value value;
  uint64_t offset;
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) good(same[i], same[i]);
  good("-0", "0");
  good("1e0", "1.0");
  good("1E5", "100000.0");
  good("1.50", "1.5");
  good("-0e0", "-0.0");
  good("1e-400", "0.0");
  good("0.000000000000000000000000000000000000001e+40", "10.0");
  bad("1e400", PACKBUF_BAD_JSON, 0);
  bad("[-1e400]", PACKBUF_BAD_JSON, 1);
  bad("[1,2E+999]", PACKBUF_BAD_JSON, 3);
  tap_ok(!parse("-9223372036854775808", 20, 0, &value, &offset) && value.kind == PACKBUF_INT && value.as.i == INT64_MIN,
         "int64 has its own kind");
  tap_ok(!parse("9223372036854775808", 19, 0, &value, &offset) && value.kind == PACKBUF_UINT &&
             value.as.u == (uint64_t)1 << 63,
         "and uint64");
  tap_ok(!parse("18446744073709551616", 20, 0, &value, &offset) && value.kind == PACKBUF_BIGINT &&
             value.as.text.data == kept,
         "and beyond");
  tap_ok(!parse("NaN", 3, 0, &value, &offset) && value.kind == PACKBUF_FLOAT &&
             packbuf_i_double_bits(&value.as.f) == 0x7FF8000000000000u,
         "NaN is the quiet one");
  memset(big, '9', 400);
  memcpy(big + 400, ".5", 3);
  bad(big, PACKBUF_BAD_JSON, 0);
  bad("", PACKBUF_BAD_JSON, 0);
  bad("  ", PACKBUF_BAD_JSON, 2);
  bad("-", PACKBUF_BAD_JSON, 1);
  bad("-x", PACKBUF_BAD_JSON, 1);
  bad("+1", PACKBUF_BAD_JSON, 0);
  bad(".5", PACKBUF_BAD_JSON, 0);
  bad("01", PACKBUF_BAD_JSON, 1);
  bad("-01", PACKBUF_BAD_JSON, 2);
  bad("1.", PACKBUF_BAD_JSON, 2);
  bad("1.x", PACKBUF_BAD_JSON, 2);
  bad("1.e1", PACKBUF_BAD_JSON, 2);
  bad("1e", PACKBUF_BAD_JSON, 2);
  bad("1e+", PACKBUF_BAD_JSON, 3);
  bad("1e+x", PACKBUF_BAD_JSON, 3);
  bad("1x", PACKBUF_BAD_JSON, 1);
  bad("1 2", PACKBUF_BAD_JSON, 2);
  bad("0x10", PACKBUF_BAD_JSON, 1);
  bad("1_000", PACKBUF_BAD_JSON, 1);
}

static void test_literals(void)
{
    good(" true ", "true");
    good("\t\r\n false\n", "false");
    good("null", "null");
    bad("tru", PACKBUF_BAD_JSON, 3);
    bad("trux", PACKBUF_BAD_JSON, 3);
    bad("truee", PACKBUF_BAD_JSON, 4);
    bad("nul", PACKBUF_BAD_JSON, 3);
    bad("nan", PACKBUF_BAD_JSON, 1);
    bad("NaM", PACKBUF_BAD_JSON, 2);
    bad("Infinit", PACKBUF_BAD_JSON, 7);
    bad("-Infinitx", PACKBUF_BAD_JSON, 8);
    bad("-NaN", PACKBUF_BAD_JSON, 1);
    bad("True", PACKBUF_BAD_JSON, 0);
    bad("\xEF\xBB\xBF""1", PACKBUF_BAD_JSON, 0);
    bad("\v1", PACKBUF_BAD_JSON, 0);
    bad("// x", PACKBUF_BAD_JSON, 0);
}

static void test_strings(void)
{
    packbuf_value value;
    uint64_t offset;
    good("\"\"", "\"\"");
    good("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t\"");
    good("\"\\u0000\\u001f\\u007f\\u0080\\u07ff\\u0800\\uFFFF\"",
         "\"\\u0000\\u001f\x7f\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\"");
    good("\"\\ud83d\\uDE00\\uD800\\uDC00\\udbff\\udfff\"", "\"\xF0\x9F\x98\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\"");
    good("\"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 and more than eight bytes\"",
         "\"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 and more than eight bytes\"");
    tap_ok(!parse("\"abc\"", 5, 0, &value, &offset) && value.as.text.data == kept + 1 && value.as.text.size == 3,
           "a string without escapes lies in the text");
    tap_ok(!parse("\"a\0b\"", 5, 0, &value, &offset) ? 0 : offset == 2, "a NUL byte is a control character");
    tap_ok(!parse("\"a\\u0000b\"", 10, 0, &value, &offset) && value.as.text.size == 3 &&
               !memcmp(value.as.text.data, "a\0b", 3),
           "its escape is none");
    bad("\"", PACKBUF_BAD_JSON, 1);
    bad("\"abcdefghijkl", PACKBUF_BAD_JSON, 13);
    bad("\"abcdefghi\njkl\"", PACKBUF_BAD_JSON, 10);
    bad("\"\t\"", PACKBUF_BAD_JSON, 1);
    bad("\"\\", PACKBUF_BAD_JSON, 2);
    bad("\"\\x\"", PACKBUF_BAD_JSON, 2);
    bad("\"\\n\\'\"", PACKBUF_BAD_JSON, 4);
    bad("\"\\u\"", PACKBUF_BAD_JSON, 3);
    bad("\"\\u12", PACKBUF_BAD_JSON, 5);
    bad("\"\\u12G4\"", PACKBUF_BAD_JSON, 5);
    bad("\"\\uD800\"", PACKBUF_BAD_JSON, 1);
    bad("\"ab\\uDC00\"", PACKBUF_BAD_JSON, 3);
    bad("\"\\uD800x\"", PACKBUF_BAD_JSON, 1);
    bad("\"\\uD800\\n\"", PACKBUF_BAD_JSON, 1);
    bad("\"\\uD800\\u0041\"", PACKBUF_BAD_JSON, 1);
    bad("\"\\uD800\\uD800\"", PACKBUF_BAD_JSON, 1);
    bad("\"\\uD800\\u00", PACKBUF_BAD_JSON, 11);
    bad("\"\\uD800\\u0g", PACKBUF_BAD_JSON, 10);
    bad("\"\\uD800", PACKBUF_BAD_JSON, 7);
    bad("\"\\uD800\\", PACKBUF_BAD_JSON, 8);
    bad("\"a\xFF\"", PACKBUF_BAD_UTF8, 2);
    bad("\"\xC0\xAF\"", PACKBUF_BAD_UTF8, 1);
    bad("\"\xED\xA0\x80\"", PACKBUF_BAD_UTF8, 1);
    bad("x \"\xF5\"", PACKBUF_BAD_JSON, 0); /* what is wrong before that comes first */
    bad("1 x\xF5", PACKBUF_BAD_JSON, 2);
    bad("[1,\xF5]", PACKBUF_BAD_UTF8, 3);
    bad("1 \xF5", PACKBUF_BAD_UTF8, 2);
    bad("{\"a\":1,\"a\":\"\xF5\"}", PACKBUF_BAD_JSON, 7);
}

static void test_containers(void)
{
    good("[]", "[]");
    good(" [ ] ", "[]");
    good("{}", "{}");
    good("{ \"b\" : 1 , \"a\" : [ 1 , 2.5 , \"x\" , null , { } ] }", "{\"b\":1,\"a\":[1,2.5,\"x\",null,{}]}");
    good("{\"\":{\"\":{\"\":[[[]]]}}}", "{\"\":{\"\":{\"\":[[[]]]}}}");
    good("{\"a\\n\":1,\"\\u00e9\":2}", "{\"a\\n\":1,\"\xC3\xA9\":2}");
    bad("[", PACKBUF_BAD_JSON, 1);
    bad("[1", PACKBUF_BAD_JSON, 2);
    bad("[1,", PACKBUF_BAD_JSON, 3);
    bad("[1,]", PACKBUF_BAD_JSON, 3);
    bad("[,1]", PACKBUF_BAD_JSON, 1);
    bad("[1 2]", PACKBUF_BAD_JSON, 3);
    bad("[1}", PACKBUF_BAD_JSON, 2);
    bad("]", PACKBUF_BAD_JSON, 0);
    bad("[] []", PACKBUF_BAD_JSON, 3);
    bad("{", PACKBUF_BAD_JSON, 1);
    bad("{1:2}", PACKBUF_BAD_JSON, 1);
    bad("{\"a\"", PACKBUF_BAD_JSON, 4);
    bad("{\"a\" 1}", PACKBUF_BAD_JSON, 5);
    bad("{\"a\":}", PACKBUF_BAD_JSON, 5);
    bad("{\"a\":1", PACKBUF_BAD_JSON, 6);
    bad("{\"a\":1,}", PACKBUF_BAD_JSON, 7);
    bad("{\"a\":1]", PACKBUF_BAD_JSON, 6);
    bad("{,}", PACKBUF_BAD_JSON, 1);
}

static void test_cells(void)
{
    packbuf_error error;
    tap_ok(packbuf_i_json_check((const uint8_t *)" null", 5, 0, 1, &error) == PACKBUF_BAD_JSON && error.offset == 1,
           "a cell is not null");
    tap_ok(packbuf_i_json_check((const uint8_t *)" null x", 7, 0, 1, &error) == PACKBUF_BAD_JSON && error.offset == 6,
           "but what follows is wrong first");
    tap_ok(packbuf_i_json_check((const uint8_t *)"[null]", 6, 0, 1, &error) == PACKBUF_OK, "nulls within are fine");
    tap_ok(packbuf_i_json_check(NULL, 0, 0, 1, NULL) == PACKBUF_BAD_JSON, "no bytes at all");
}

static void test_depth(void)
{
    packbuf_value value, nested;
    uint64_t offset;
    size_t size = 0;
    packbuf_value *levels = (packbuf_value *)malloc(600 * sizeof *levels);
    memset(big, '[', 1100);
    memset(big + 512, ']', 512);
    tap_ok(parse(big, 1024, 0, &value, &offset) == PACKBUF_OK, "512 lists deep");
    tap_ok(!packbuf_json_write(&value, NULL, 0, &size, NULL) && size == 1024, "can be written");
    memset(big, '[', 1100);
    memset(big + 513, ']', 513);
    tap_ok(parse(big, 1026, 0, &value, &offset) == PACKBUF_DEPTH && offset == 512, "513 are not read");
    tap_ok(parse(big, 1026, 513, &value, &offset) == PACKBUF_OK, "unless the caller says so");
    tap_ok(packbuf_json_write(&value, NULL, 0, &size, NULL) == PACKBUF_DEPTH, "but not written");
    for (size_t i = 0; i < 513; i++) memcpy(big + 5 * i, "{\"a\":", 5);
    tap_ok(parse(big, 5 * 513, 0, &value, &offset) == PACKBUF_DEPTH && offset == 5 * 512, "513 objects are not read");
    tap_ok(parse("[[1]]", 5, 1, &value, &offset) == PACKBUF_DEPTH && offset == 1 &&
               parse("[1]", 3, 1, &value, &offset) == PACKBUF_OK && parse("7", 1, 1, &value, &offset) == PACKBUF_OK,
           "a limit of 1");
    memset(big, '[', JSON_MAX);
    tap_ok(parse(big, JSON_MAX, UINT32_MAX, &value, &offset) == PACKBUF_DEPTH && offset == 4096,
           "no limit goes beyond 4096");
    levels[0] = packbuf_int(1);
    for (size_t i = 1; i < 600; i++) levels[i] = packbuf_list(&levels[i - 1], 1);
    nested = levels[512];
    tap_ok(packbuf_i_json_can(&nested, 512, NULL, NULL) == PACKBUF_OK &&
               packbuf_i_json_can(&levels[513], 512, NULL, NULL) == PACKBUF_DEPTH,
           "the same for values");
    free(levels);
}

/* ---- equal keys ---- */

/* An object of `count` keys "kN", of which key `second` (when not 0) repeats key `first`. Returns the length; *at is
 * where the repetition starts. */
static size_t make_object(char *to, size_t count, size_t first, size_t second, int escaped, size_t *at)
{
    size_t n = 0;
    to[n++] = '{';
    for (size_t i = 0; i < count; i++) {
        size_t number = second && i == second ? first : i;
        if (i) to[n++] = ',';
        if (second && i == second) *at = n;
        to[n++] = '"';
        if (escaped && i == second) {
            memcpy(to + n, "\\u006B", 6);
            n += 6;
        } else {
            to[n++] = 'k';
        }
        n += packbuf_i_format_u64(number, to + n);
        to[n++] = '"';
        to[n++] = ':';
        to[n++] = '7';
    }
    to[n++] = '}';
    return n;
}

static void test_equal_keys(void)
{
    static const size_t counts[] = {2, 3, 16, 31, 32, 33, 34, 64, 100, 4095, 4096, 4097, 4098, 8193, 10000, 60000};
    packbuf_value value;
    uint64_t offset;
    int right = 1;
    bad("{\"a\":1,\"a\":2}", PACKBUF_BAD_JSON, 7);
    bad("{\"a\":1,\"b\":2, \"\\u0061\":3}", PACKBUF_BAD_JSON, 14);
    bad("{\"\":1,\"\":2}", PACKBUF_BAD_JSON, 6);
    bad("{\"\\ud83d\\ude00\":1,\"\xF0\x9F\x98\x80\":1}", PACKBUF_BAD_JSON, 18);
    bad("{\"long key of more than eight bytes\":1,\"long key of m\\u006fre than eight bytes\":1}", PACKBUF_BAD_JSON,
        39);
    bad("[{\"a\":{\"a\":1,\"b\":{\"a\":{}}},\"a\":1}]", PACKBUF_BAD_JSON, 27);
    good("{\"a\":{\"a\":1},\"b\":{\"a\":1}}", "{\"a\":{\"a\":1},\"b\":{\"a\":1}}");
    good("{\"a\":1,\"A\":1,\"a \":1,\"a\\u0000\":1,\"\":1,\"\\u0000\":1}",
         "{\"a\":1,\"A\":1,\"a \":1,\"a\\u0000\":1,\"\":1,\"\\u0000\":1}");
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        size_t n = counts[c], at = 0, size = make_object(big, n, 0, 0, 0, &at);
        size_t seconds[4];
        right &= parse(big, size, 0, &value, &offset) == PACKBUF_OK && value.as.dict.count == n;
        seconds[0] = 1;
        seconds[1] = n / 2;
        seconds[2] = seconds[3] = n - 1;
        for (int s = 0; s < 4; s++) {
            size_t first = s == 3 && n > 4098 ? 4096 : seconds[s] / 3; /* the first key of the checker's second pass */
            if (!seconds[s]) continue;
            size = make_object(big, n, first, seconds[s], s == 1, &at);
            right &= parse(big, size, 0, &value, &offset) == PACKBUF_BAD_JSON && offset == at;
            right &= parse(big, size - 1, 0, &value, &offset) == PACKBUF_BAD_JSON &&
                     offset == at; /* cut off: the equal key is the first error */
        }
        if (!right) tap_note("%d keys", (int)n);
    }
    tap_ok(right, "objects of 2 to 60000 keys, with and without an equal one");
}

/* Objects within objects, so that the checker's stack overflows and dicts are scanned again. */
static void test_evicted_keys(void)
{
    packbuf_value value;
    packbuf_error error;
    uint64_t offset;
    size_t n = 0, at = 0, inner;
    for (int level = 0; level < 20; level++) {
        big[n++] = '{';
        for (int k = 0; k < 12; k++) {
            big[n++] = '"';
            big[n++] = (char)('a' + k);
            memcpy(big + n, "\":[\"}\\\"\",{}],", 13);
            n += 13;
        }
        memcpy(big + n, "\"z\":", 4);
        n += 4;
    }
    inner = n;
    n += make_object(big + n, 9000, 0, 0, 0, &at);
    for (int level = 0; level < 20; level++) big[n++] = '}';
    tap_ok(parse(big, n, 0, &value, &offset) == PACKBUF_OK &&
               packbuf_i_json_check((const uint8_t *)big, n, 0, 0, NULL) == PACKBUF_OK,
           "nested objects with many keys");
    memcpy(big + n - 5, ",\"c\":1}}}}}", 11); /* a key after the large object, equal to one before it */
    tap_ok(parse(big, n + 6, 0, &value, &offset) == PACKBUF_BAD_JSON && offset == n - 4,
           "an equal key after the large object");
    tap_ok(packbuf_i_json_check((const uint8_t *)big, n + 6, 0, 0, &error) == PACKBUF_BAD_JSON && error.offset == n - 4,
           "is found without memory");
    big[n - 3] = 'y';
    tap_ok(parse(big, n + 6, 0, &value, &offset) == PACKBUF_OK, "another key is fine");
    big[n + 5] = ']';
    tap_ok(parse(big, n + 6, 0, &value, &offset) == PACKBUF_BAD_JSON && offset == n + 5, "an error after it");
    big[1 + 15 * 3 + 1] = 'a'; /* fourth key of the outermost object */
    tap_ok(parse(big, n + 6, 0, &value, &offset) == PACKBUF_BAD_JSON && offset == 1 + 15 * 3, "is behind an equal key");
    n = make_object(big, 90000, 0, 0, 0, &at);
    tap_ok(packbuf_i_json_check((const uint8_t *)big, n, 0, 0, &error) == PACKBUF_OK,
           "90000 keys are checked without memory");
    for (n = 0, inner = 0; inner < 600; inner++) n += make_object(big + n, 170, 0, 0, 0, &at), big[n++] = ',';
    memmove(big + 1, big, n);
    big[0] = '[';
    big[n] = ']';
    tap_ok(packbuf_i_json_check((const uint8_t *)big, n + 1, 0, 0, &error) == PACKBUF_OK, "and 600 objects of 170");
}

static void test_limit_of_keys(void)
{
    static char text[4000000];
    packbuf_error error;
    packbuf_value value;
    uint64_t offset;
    size_t at = 0, n = make_object(text, 300000, 0, 0, 0, &at);
    tap_ok(packbuf_i_json_check((const uint8_t *)text, n, 0, 0, &error) == PACKBUF_LIMIT && error.offset == 0,
           "300000 keys are not");
    tap_ok(parse(text, n, 0, &value, &offset) == PACKBUF_OK && value.as.dict.count == 300000, "but they are parsed");
    n = make_object(text, 300000, 5, 299999, 0, &at);
    tap_ok(parse(text, n, 0, &value, &offset) == PACKBUF_BAD_JSON && offset == at, "and equal ones found");
}

/* ---- every way to fail ---- */

static const char rich[] =
    " {\"id\" : 1234567890123, \"text\":\"a\\\"b\\u00e9\\ud83d\\ude00 plain\", \"empty\":[], \"none\":{},\"list\":[1, -2.5e-3,true,false,null,NaN,"
    "-Infinity,Infinity,18446744073709551616],\"nested\":{\"a\":{\"b\":[[[\"x\"],[\"\"]]]}, \"c\":0.1}}";

static void test_truncation(void)
{
    packbuf_value value;
    uint64_t offset;
    size_t size = sizeof rich - 1;
    int right = parse(rich, size, 0, &value, &offset) == PACKBUF_OK;
    for (size_t n = 0; n < size; n++) {
        packbuf_status status = parse(rich, n, 0, &value, &offset);
        if (status != PACKBUF_BAD_JSON || offset != n) {
            right = 0;
            tap_note("%d bytes: %s at %d", (int)n, packbuf_status_name(status), (int)offset);
        }
    }
    tap_ok(right, "a text cut anywhere ends too early, at its end");
}

/* The parser and the checker agree on mutilated texts. */
static void test_mutations(void)
{
    static const char bytes[] = "[]{}:,\"\\u0aDd8.eE+-1 nNtI\xC3\xA9\n";
    uint32_t random = 12345;
    int agree = 1;
    packbuf_value value;
    uint64_t offset;
    for (int i = 0; i < 30000; i++) {
        size_t size = sizeof rich - 1;
        memcpy(big, rich, size);
        for (int changes = 1 + i % 3; changes > 0; changes--) {
            random = random * 1664525u + 1013904223u;
            big[(random >> 16) % size] = bytes[(random >> 8) % (sizeof bytes - 1)];
        }
        agree &= (int)parse(big, size, 0, &value, &offset) >= 0 && offset <= size;
    }
    tap_ok(agree, "parser and checker agree on 30000 mutilated texts");
}

typedef struct meter {
    uint64_t live, calls, fail_at;
} meter;

static void *meter_resize(void *context, void *memory, size_t old_size, size_t new_size)
{
    meter *m = (meter *)context;
    if (new_size && ++m->calls == m->fail_at) return NULL;
    m->live = m->live - old_size + new_size;
    if (new_size) return realloc(memory, new_size);
    free(memory);
    return NULL;
}

static void test_memory(void)
{
    packbuf_allocator allocator;
    packbuf_arena a;
    packbuf_value value;
    packbuf_error error;
    meter m;
    size_t at = 0, size = make_object(big, 9000, 0, 0, 0, &at), written;
    packbuf_status status;
    int right = 1;
    uint64_t i;
    allocator.resize = meter_resize;
    allocator.context = &m;
    for (i = 1;; i++) {
        memset(&m, 0, sizeof m);
        m.fail_at = i;
        packbuf_arena_init(&a, &allocator);
        status = packbuf_json_parse(big, size, 0, &a, &value, &error);
        right &= status == PACKBUF_OK ||
                 (status == PACKBUF_OUT_OF_MEMORY && error.code == status && error.offset == PACKBUF_NOWHERE);
        if (status == PACKBUF_OK) right &= !packbuf_json_write(&value, NULL, 0, &written, NULL) && written == size;
        packbuf_arena_free(&a);
        right &= m.live == 0;
        if (m.calls < i) break;
    }
    tap_ok(right && i > 8 && status == PACKBUF_OK, "each of %d allocations may fail", (int)i - 1);
    status = PACKBUF_OK;
    right = 1;
    for (size_t room = 0; room < 20000; room += 7) {
        unsigned char *memory = (unsigned char *)malloc(room + 1);
        packbuf_status was = status;
        packbuf_arena_init_fixed(&a, memory, room);
        status = packbuf_json_parse(rich, sizeof rich - 1, 0, &a, &value, NULL);
        right &= status == PACKBUF_OK || (status == PACKBUF_OUT_OF_MEMORY && (room == 0 || was != PACKBUF_OK));
        free(memory);
    }
    tap_ok(right && status == PACKBUF_OK, "fixed arenas of 0 to 20000 bytes");
    packbuf_arena_init(&a, NULL);
    a.limit = 250;
    tap_ok(packbuf_json_parse(rich, sizeof rich - 1, 0, &a, &value, NULL) == PACKBUF_OUT_OF_MEMORY,
           "the arena's limit holds");
    packbuf_arena_free(&a);
    size = 0;
    big[size++] = '[';
    for (int k = 0; k < 50000; k++) memcpy(big + size, "1,", 2), size += 2;
    memcpy(big + size, "1]", 2);
    packbuf_arena_init(&a, NULL);
    tap_ok(!packbuf_json_parse(big, size + 2, 0, &a, &value, NULL) && a.used <= 50001 * sizeof value + 16,
           "a list of 50001 numbers takes 24 bytes each");
    packbuf_arena_free(&a);
}

/* ---- the writer ---- */

static void can(packbuf_value value, packbuf_status expected, uint64_t offset, const char *what)
{
    packbuf_error error;
    size_t size;
    packbuf_status status = packbuf_json_write(&value, NULL, 0, &size, &error);
    tap_ok(status == expected && packbuf_i_json_can(&value, 512, NULL, NULL) == expected &&
               (!status || (error.code == status && error.offset == offset)),
           "%s: %s", packbuf_status_name(expected), what);
}

static void test_can(void)
{
    packbuf_entry entries[3];
    packbuf_value items[2];
    packbuf_media media = packbuf_media_of("x", 1, NULL);
    packbuf_opaque opaque = {"x", 1, "p", 1};
    packbuf_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    can(packbuf_missing(), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "missing");
    can(packbuf_bytes("x", 1), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "bytes");
    can(packbuf_media_value(&media), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "media");
    can(packbuf_opaque_value(&opaque), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "opaque");
    can(packbuf_tensor_value(&tensor), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "tensor");
    can(packbuf_float(from_bits(0x7FF8000000000000u)), PACKBUF_OK, 0, "the quiet NaN");
    can(packbuf_float(from_bits(0xFFF8000000000000u)), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "a negative NaN");
    can(packbuf_float(from_bits(0x7FF8000000000001u)), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "a NaN with a payload");
    can(packbuf_float(from_bits(0x7FF0000000000001u)), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "a signalling NaN");
    can(packbuf_bigint("18446744073709551616"), PACKBUF_OK, 0, "2^64");
    can(packbuf_bigint("18446744073709551615"), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "2^64 - 1 as text");
    can(packbuf_bigint("-9223372036854775809"), PACKBUF_OK, 0, "-2^63 - 1");
    can(packbuf_bigint("-9223372036854775808"), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "-2^63 as text");
    can(packbuf_bigint(""), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "no digits");
    can(packbuf_bigint("-"), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "only a sign");
    can(packbuf_bigint("018446744073709551616"), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "a leading 0");
    can(packbuf_bigint("1844674407370955161x"), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "no number");
    can(packbuf_string("ab\xFF"), PACKBUF_BAD_UTF8, 2, "a string that is not UTF-8");
    items[0] = packbuf_int(1);
    items[1] = packbuf_bytes("x", 1);
    can(packbuf_list(items, 2), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "bytes in a list");
    for (int i = 0; i < 3; i++) entries[i].value = packbuf_list(items, 1);
    entries[0].key = packbuf_string("a");
    entries[1].key = packbuf_string("b");
    entries[2].key = packbuf_string_n("ax", 1);
    can(packbuf_dict(entries, 2), PACKBUF_OK, 0, "a dict");
    can(packbuf_dict(entries, 3), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "equal keys");
    entries[1].key = packbuf_int(1);
    can(packbuf_dict(entries, 2), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "a key that is no string");
    entries[1].key = packbuf_string("abc\xC3");
    can(packbuf_dict(entries, 2), PACKBUF_BAD_UTF8, 3, "a key that is not UTF-8");
    entries[1].key = packbuf_string("b");
    entries[1].value = packbuf_missing();
    can(packbuf_dict(entries, 2), PACKBUF_UNENCODABLE, PACKBUF_NOWHERE, "missing in a dict");
}

static void test_can_many_keys(void)
{
    enum { N = 10000 };
    static packbuf_entry entries[N];
    static char names[N][12];
    packbuf_value dict = packbuf_dict(entries, N);
    packbuf_arena a;
    for (size_t i = 0; i < N; i++) {
        entries[i].key = packbuf_string_n(names[i], packbuf_i_format_u64(i, names[i]));
        entries[i].value = packbuf_null();
    }
    packbuf_arena_init(&a, NULL);
    tap_ok(!packbuf_i_json_can(&dict, 1, NULL, NULL) && !packbuf_i_json_can(&dict, 1, &a, NULL),
           "a dict of 10000 keys");
    entries[N - 1].key = entries[5].key;
    tap_ok(packbuf_i_json_can(&dict, 1, NULL, NULL) == PACKBUF_UNENCODABLE &&
               packbuf_i_json_can(&dict, 1, &a, NULL) == PACKBUF_UNENCODABLE,
           "of which two are equal");
    tap_ok(a.used == 0 && a.blocks == NULL, "nothing stays in the arena");
    a.limit = 100;
    tap_ok(packbuf_i_json_can(&dict, 1, &a, NULL) == PACKBUF_OUT_OF_MEMORY, "its limit holds");
    packbuf_arena_free(&a);
}

static void test_capacity(void)
{
    packbuf_value value;
    uint64_t offset;
    size_t full = 0, size;
    char out[600], cut[600];
    packbuf_error error;
    int right = parse(rich, sizeof rich - 1, 0, &value, &offset) == PACKBUF_OK &&
                !packbuf_json_write(&value, out, sizeof out, &full, NULL);
    for (size_t capacity = 0; capacity <= full; capacity++) {
        packbuf_status status;
        memset(cut, '#', sizeof cut);
        status = packbuf_json_write(&value, cut, capacity, &size, &error);
        right &= size == full && status == (capacity < full ? PACKBUF_CAPACITY : PACKBUF_OK) && cut[capacity] == '#' &&
                 (!status || error.needed == full);
    }
    tap_ok(right && memcmp(out, cut, full) == 0,
           "a destination of any size: the length is reported, nothing is written past it");
    tap_ok(packbuf_json_write(&value, cut, 3, &size, NULL) == PACKBUF_CAPACITY, "without an error to fill");
}

/* A list of two lists of two lists ... 2^25 times the same text, and no more than 2^20 bytes of it are measured. */
static void test_vast(void)
{
    packbuf_value levels[26][2];
    packbuf_i_sink sink = {NULL, 0, 0, 1 << 20};
    levels[0][0] = levels[0][1] = packbuf_string("0123456789abcdef");
    for (unsigned i = 1; i < 26; i++) levels[i][0] = levels[i][1] = packbuf_list(levels[i - 1], 2);
    tap_ok(
        packbuf_i_json_encode(levels[25], PACKBUF_I_DEPTH, &sink, NULL) == PACKBUF_LIMIT && sink.size < (1 << 20) + 256,
        "measuring stops at its limit");
}

int main(void)
{
    test_numbers();
    test_literals();
    test_strings();
    test_containers();
    test_cells();
    test_depth();
    test_equal_keys();
    test_evicted_keys();
    test_limit_of_keys();
    test_truncation();
    test_mutations();
    test_memory();
    test_can();
    test_can_many_keys();
    test_capacity();
    test_vast();
    packbuf_arena_free(&arena);
    free(kept);
    return tap_plan_done();
}
