/* MessagePack cells (section 12 of the spec): the parser, the checker, the writer. Whatever is parsed is checked too:
 * both must say the same. */
#include "internals.h"
#include "tap.h"

static packbuf_arena arena;
static uint8_t *kept;

/* Parses in an allocation of exactly `size` bytes, checks too, compares. The value lives until the next call. */
static packbuf_status parse(const void *data, size_t size, unsigned depth, packbuf_value *value, uint64_t *offset)
{
    packbuf_error error, checked;
    packbuf_status status, check;
    if (kept) packbuf_arena_free(&arena);
    free(kept);
    kept = (uint8_t *)malloc(size + !size);
    if (size) memcpy(kept, data, size);
    packbuf_arena_init(&arena, NULL);
    status = packbuf_msgpack_parse(kept, size, depth, &arena, value, &error);
    check = packbuf_i_msgpack_check(kept, size, depth, 0, &checked);
    *offset = status ? error.offset : 0;
    if (check == PACKBUF_LIMIT) return status;
    if (status != check || (status && (error.code != status || error.offset != checked.offset ||
                                       strcmp(error.message, checked.message) != 0)))
      return (packbuf_status)-1;
    if (status && packbuf_msgpack_parse(kept, size, depth, &arena, value, NULL) != status) return (packbuf_status)-2;
    return status;
}

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    for (; *hex; hex++) {
        uint32_t high = 0;
        if (*hex == ' ') continue;
        sscanf(hex, "%2x", &high);
        out[n++] = (uint8_t)high;
        hex++;
    }
    return n;
}

static void bad(const char *hex, packbuf_status expected, uint64_t at, const char *what)
{
    uint8_t data[300];
    packbuf_value value;
    uint64_t offset;
    packbuf_status status = parse(data, unhex(hex, data), 0, &value, &offset);
    tap_ok(status == expected && offset == at, "%s at %d: %s", packbuf_status_name(expected), (int)at, what);
    if (status != expected || offset != at) tap_note("got %s at %d", packbuf_status_name(status), (int)offset);
}

/* The bytes read as `value`, which is written as `shortest` (NULL: the same bytes). */
static void good(const char *hex, packbuf_value expected, const char *shortest)
{
    uint8_t data[300], same[300], out[300];
    packbuf_value value;
    uint64_t offset;
    size_t size = 0, measured = 0, n = unhex(hex, data), m = unhex(shortest ? shortest : hex, same);
    packbuf_status status = parse(data, n, 0, &value, &offset);
    int right = !status && packbuf_equal(&value, &expected) &&
                !packbuf_msgpack_write(&value, NULL, 0, &measured, NULL) &&
                !packbuf_msgpack_write(&value, out, sizeof out, &size, NULL) && size == measured && size == m &&
                memcmp(out, same, m) == 0;
    right = right && !packbuf_msgpack_write(&expected, out, sizeof out, &size, NULL) && size == m &&
            memcmp(out, same, m) == 0;
    tap_ok(right, "%s", hex);
    if (!right) tap_note("got %s at %d", packbuf_status_name(status), (int)offset);
}

static double from_bits(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, 8);
    return f;
}

/* Not through a double by value: the x87 would make a signalling NaN quiet. */
static packbuf_value float_of(uint64_t bits)
{
    packbuf_value value = packbuf_float(0);
    memcpy(&value.as.f, &bits, 8);
    return value;
}

static void test_scalars(void)
{
    good("C0", packbuf_null(), NULL);
    good("C2", packbuf_bool(0), NULL);
    good("C3", packbuf_bool(1), NULL);
    good("00", packbuf_int(0), NULL);
    good("7F", packbuf_int(127), NULL);
    good("CC80", packbuf_int(128), NULL);
    good("CCFF", packbuf_uint(255), NULL);
    good("CD0100", packbuf_int(256), NULL);
    good("CDFFFF", packbuf_int(65535), NULL);
    good("CE00010000", packbuf_int(65536), NULL);
    good("CEFFFFFFFF", packbuf_int(4294967295), NULL);
    good("CF0000000100000000", packbuf_int(4294967296), NULL);
    good("CF7FFFFFFFFFFFFFFF", packbuf_int(INT64_MAX), NULL);
    good("CF8000000000000000", packbuf_uint((uint64_t)1 << 63), NULL);
    good("CFFFFFFFFFFFFFFFFF", packbuf_uint(UINT64_MAX), NULL);
    good("FF", packbuf_int(-1), NULL);
    good("E0", packbuf_int(-32), NULL);
    good("D0DF", packbuf_int(-33), NULL);
    good("D080", packbuf_int(-128), NULL);
    good("D1FF7F", packbuf_int(-129), NULL);
    good("D18000", packbuf_int(-32768), NULL);
    good("D2FFFF7FFF", packbuf_int(-32769), NULL);
    good("D280000000", packbuf_int(-2147483647 - 1), NULL);
    good("D3FFFFFFFF7FFFFFFF", packbuf_int(-(int64_t)2147483649), NULL);
    good("D38000000000000000", packbuf_int(INT64_MIN), NULL);
    good("CB3FF8000000000000", packbuf_float(1.5), NULL);
    good("CB8000000000000000", packbuf_float(-0.0), NULL);
    good("CB7FF0000000000001", float_of(0x7FF0000000000001u), NULL);
    /* longer than need be */
    good("CC05", packbuf_int(5), "05");
    good("CD0005", packbuf_int(5), "05");
    good("CE00000005", packbuf_int(5), "05");
    good("CF0000000000000005", packbuf_int(5), "05");
    good("D005", packbuf_int(5), "05");
    good("D10080", packbuf_int(128), "CC80");
    good("D20000FFFF", packbuf_int(65535), "CDFFFF");
    good("D3FFFFFFFFFFFFFFFF", packbuf_int(-1), "FF");
    good("D30000000000000080", packbuf_int(128), "CC80");
    good("CA3FC00000", packbuf_float(1.5), "CB3FF8000000000000");
    good("CA80000000", packbuf_float(-0.0), "CB8000000000000000");
    good("CA00000001", packbuf_float(from_bits(0x36A0000000000000u)), "CB36A0000000000000");
    good("CA7F800000", packbuf_float(from_bits(0x7FF0000000000000u)), "CB7FF0000000000000");
    good("CAFF800001", float_of(0xFFF0000020000000u), "CBFFF0000020000000");
    good("D90161", packbuf_string("a"), "A161");
    good("DA000161", packbuf_string("a"), "A161");
    good("DB0000000161", packbuf_string("a"), "A161");
    good("C50001FF", packbuf_bytes("\xFF", 1), "C401FF");
    good("C600000001FF", packbuf_bytes("\xFF", 1), "C401FF");
    good("DC0000", packbuf_list(NULL, 0), "90");
    good("DD00000000", packbuf_list(NULL, 0), "90");
    good("DE0000", packbuf_dict(NULL, 0), "80");
    good("DF00000000", packbuf_dict(NULL, 0), "80");
}

static void test_containers(void)
{
    packbuf_value items[3];
    packbuf_entry entries[8];
    items[0] = packbuf_int(1);
    items[1] = packbuf_string("caf\xC3\xA9");
    items[2] = packbuf_list(items, 1);
    good("93 01 A5636166C3A9 91 01", packbuf_list(items, 3), NULL);
    entries[0].key = packbuf_null();
    entries[1].key = packbuf_bool(0);
    entries[2].key = packbuf_int(0);
    entries[3].key = packbuf_float(0.0);
    entries[4].key = packbuf_string("");
    entries[5].key = packbuf_bytes("", 0);
    entries[6].key = packbuf_float(-0.0);
    entries[7].key = packbuf_bigint("18446744073709551616");
    for (int i = 0; i < 8; i++) entries[i].value = packbuf_int(i);
    good(
        "88 C0 00 C2 01 00 02 CB0000000000000000 03 A0 04 C400 05 CB8000000000000000 06 C71401 3138343436373434303733373039353531363136 07",
        packbuf_dict(entries, 8), NULL);
    entries[0].value = packbuf_list(items, 3);
    good("81 C0 93 01 A5636166C3A9 91 01", packbuf_dict(entries, 1), NULL);
}

static void test_lengths(void)
{
    static const size_t sizes[] = {0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536, 70000};
    static const unsigned heads[3][11] = {
        {1, 1, 1, 1, 1, 2, 2, 3, 3, 5, 5}, {2, 2, 2, 2, 2, 2, 2, 3, 3, 5, 5}, {1, 1, 1, 3, 3, 3, 3, 3, 3, 5, 5}};
    static char text[70000];
    static packbuf_value items[70000];
    uint8_t *out = (uint8_t *)malloc(80000);
    int right = 1;
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < 70000; i++) items[i] = packbuf_bool(1);
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
          packbuf_value again, value = kind == 0   ? packbuf_string_n(text, sizes[i])
                                       : kind == 1 ? packbuf_bytes(text, sizes[i])
                                                   : packbuf_list(items, sizes[i]);
          uint64_t offset;
          size_t size;
          right &= !packbuf_msgpack_write(&value, out, 80000, &size, NULL) && size == sizes[i] + heads[kind][i];
          right &= !parse(out, size, 0, &again, &offset) && packbuf_equal(&value, &again);
          right &= kind == 2 || again.as.text.data == (const char *)kept + heads[kind][i];
        }
    }
    tap_ok(right, "strings, bytes and lists of 0 to 70000, each with the shortest head");
    free(out);
}

static void test_bad(void)
{
    bad("", PACKBUF_BAD_MSGPACK, 0, "nothing");
    bad("C1", PACKBUF_BAD_MSGPACK, 0, "the type that is never used");
    bad("93 01 C1 01", PACKBUF_BAD_MSGPACK, 2, "it in a list");
    bad("01 02", PACKBUF_BAD_MSGPACK, 1, "two objects");
    bad("CC", PACKBUF_BAD_MSGPACK, 1, "no number");
    bad("CB 0000", PACKBUF_BAD_MSGPACK, 3, "half a float");
    bad("A3 6161", PACKBUF_BAD_MSGPACK, 3, "half a string");
    bad("D9", PACKBUF_BAD_MSGPACK, 1, "no length");
    bad("DB FFFFFFFF 61", PACKBUF_BAD_MSGPACK, 6, "a string of 4 GiB in one byte");
    bad("C6 FFFFFFFF", PACKBUF_BAD_MSGPACK, 5, "bytes of 4 GiB");
    bad("DD FFFFFFFF C0", PACKBUF_BAD_MSGPACK, 6, "a list of 2^32 items in one byte");
    bad("DF FFFFFFFF C0C0", PACKBUF_BAD_MSGPACK, 7, "a map of 2^32 entries");
    bad("DF 80000000 C0C0", PACKBUF_BAD_MSGPACK, 7, "a map of 2^31 entries");
    bad("DD FFFFFFFF C1", PACKBUF_BAD_MSGPACK, 5, "a list of 2^32 items of which the first is wrong");
    bad("DF FFFFFFFF 0000 00", PACKBUF_BAD_MSGPACK, 7, "a map of 2^32 entries of which the second is");
    bad("93 93 93 C0", PACKBUF_BAD_MSGPACK, 4, "lists that owe more items than there are bytes");
    bad("92 93 C1 C0 C0", PACKBUF_BAD_MSGPACK, 2, "they owe too much, but another byte is wrong first");
    bad("82 C0", PACKBUF_BAD_MSGPACK, 2, "half a map");
    bad("A2 61FF", PACKBUF_BAD_UTF8, 2, "a string that is not UTF-8");
    bad("81 A2 C3C3 00", PACKBUF_BAD_UTF8, 2, "a key that is not UTF-8");
    bad("81 90 00", PACKBUF_BAD_MSGPACK, 1, "a list as a key");
    bad("81 80 00", PACKBUF_BAD_MSGPACK, 1, "a map as a key");
    bad("81 C70403 80 000000 00", PACKBUF_BAD_MSGPACK, 1, "media as a key");
    bad("82 01 00 01 00", PACKBUF_BAD_MSGPACK, 3, "equal keys");
    bad("82 01 00 CC01 00", PACKBUF_BAD_MSGPACK, 3, "equal keys written differently");
    bad("82 A161 00 D90161 00", PACKBUF_BAD_MSGPACK, 4, "equal strings written differently");
    bad("82 CA3FC00000 00 CB3FF8000000000000 00", PACKBUF_BAD_MSGPACK, 7, "equal floats written differently");
    bad("83 FF 00 C2 00 D0FF C1", PACKBUF_BAD_MSGPACK, 5, "equal keys before another error");
    bad("82 C71401 3138343436373434303733373039353531363136 00 C8001401 3138343436373434303733373039353531363136 00",
        PACKBUF_BAD_MSGPACK, 25, "equal integers beyond 64 bits");
    bad("D4 00 00", PACKBUF_BAD_MSGPACK, 0, "an unknown extension");
    bad("D6 FF 00000000", PACKBUF_BAD_MSGPACK, 0, "a timestamp");
    bad("C7 00", PACKBUF_BAD_MSGPACK, 2, "an extension without a type");
    bad("D8 01 00", PACKBUF_BAD_MSGPACK, 3, "half an extension");
    bad("D4 01 35", PACKBUF_BAD_MSGPACK, 0, "a small integer as text");
    bad("C7 00 01", PACKBUF_BAD_MSGPACK, 0, "an integer without digits");
    bad("C71401 3138343436373434303733373039353531363135", PACKBUF_BAD_MSGPACK, 0, "2^64 - 1 as text");
    bad("91 C71501 303138343436373434303733373039353531363136", PACKBUF_BAD_MSGPACK, 1, "a leading 0");
}

static void test_bad_extensions(void)
{
    bad("D5 02 0200", PACKBUF_BAD_MSGPACK, 0, "half a tensor's head");
    bad("C70502 01 00 08 00 05", PACKBUF_BAD_MSGPACK, 0, "a tensor of form list");
    bad("C70502 05 00 08 00 05", PACKBUF_BAD_MSGPACK, 0, "a tensor of form 5");
    bad("C70502 03 00 07 00 05", PACKBUF_BAD_MSGPACK, 0, "int7");
    bad("C70502 03 01 01 00 05", PACKBUF_BAD_MSGPACK, 0, "bits");
    bad("C70D02 04 00 08 01 0100000000000000 05", PACKBUF_BAD_MSGPACK, 0, "a scalar with dimensions");
    bad("D602 03 00 08 09", PACKBUF_BAD_MSGPACK, 0, "rank 9");
    bad("C70802 03 00 08 01 01000000", PACKBUF_BAD_MSGPACK, 0, "half a shape");
    bad("C70502 03 00 10 00 05", PACKBUF_BAD_MSGPACK, 0, "half an element");
    bad("C70602 03 00 08 00 05 06", PACKBUF_BAD_MSGPACK, 0, "bytes after the elements");
    bad("C70C02 03 00 10 01 FFFFFFFFFFFFFF3F", PACKBUF_BAD_MSGPACK, 0, "elements that are not there");
    bad("C70C02 03 00 10 01 0000000000000040", PACKBUF_BAD_MSGPACK, 0, "a tensor of 2^63 bytes");
    bad("C71402 03 00 10 02 0000000000000000 0000000000000040", PACKBUF_BAD_MSGPACK, 0,
        "an empty tensor of 2^63 bytes a row");
    bad("C70602 02 06 08 00 02", PACKBUF_BAD_MSGPACK, 8, "half an extension");
    bad("C70502 02 06 08 00 02", PACKBUF_BAD_MSGPACK, 0, "a bool of 2");
    bad("C70003", PACKBUF_BAD_MSGPACK, 0, "media without anything");
    bad("D403 C0", PACKBUF_BAD_MSGPACK, 0, "media without a map");
    bad("D403 81", PACKBUF_BAD_MSGPACK, 0, "attributes that are not there");
    bad("C70703 81 A46D696D65 05", PACKBUF_BAD_MSGPACK, 0, "a mime type that is a number");
    bad("C70803 81 A46D696D65 A1FF", PACKBUF_BAD_UTF8, 0, "a mime type that is not UTF-8");
    bad("C70903 81 A6686569676874 FF", PACKBUF_BAD_MSGPACK, 0, "a height of -1");
    bad("C71103 81 A6686569676874 CF8000000000000000", PACKBUF_BAD_MSGPACK, 0, "a height of 2^63");
    bad("C70703 81 A472617465 05", PACKBUF_BAD_MSGPACK, 0, "an integer rate");
    bad("C70703 81 A46D6F6465 C0", PACKBUF_BAD_MSGPACK, 0, "a mode that is nil");
    bad("C70603 81 A378797A 05", PACKBUF_BAD_MSGPACK, 0, "an unknown attribute");
    bad("C71003 82 A57769647468 05 A6686569676874 05", PACKBUF_BAD_MSGPACK, 0, "attributes out of order");
    bad("C70F03 82 A57769647468 05 A57769647468 05", PACKBUF_BAD_MSGPACK, 0, "an attribute twice");
    bad("C70004", PACKBUF_BAD_MSGPACK, 0, "opaque without a name");
    bad("D404 05", PACKBUF_BAD_MSGPACK, 0, "a name that is a number");
    bad("D504 A561", PACKBUF_BAD_MSGPACK, 0, "half a name");
    bad("D504 A1FF", PACKBUF_BAD_UTF8, 0, "a name that is not UTF-8");
}

static void test_cells(void)
{
    packbuf_error error;
    tap_ok(
        packbuf_i_msgpack_check((const uint8_t *)"\xC0", 1, 0, 1, &error) == PACKBUF_BAD_MSGPACK && error.offset == 0,
        "a cell is not nil");
    tap_ok(packbuf_i_msgpack_check((const uint8_t *)"\xC0\xC0", 2, 0, 1, &error) == PACKBUF_BAD_MSGPACK &&
               error.offset == 1,
           "what follows is wrong first");
    tap_ok(packbuf_i_msgpack_check((const uint8_t *)"\x91\xC0", 2, 0, 1, NULL) == PACKBUF_OK, "nils within are fine");
    tap_ok(packbuf_i_msgpack_check(NULL, 0, 0, 1, NULL) == PACKBUF_BAD_MSGPACK, "no bytes at all");
}

static void test_depth(void)
{
    static uint8_t data[100000];
    static packbuf_value levels[600];
    packbuf_value value;
    uint64_t offset;
    memset(data, 0x91, sizeof data);
    data[512] = 1;
    tap_ok(parse(data, 513, 0, &value, &offset) == PACKBUF_OK, "512 lists deep");
    data[512] = 0x91;
    data[513] = 1;
    tap_ok(parse(data, 514, 0, &value, &offset) == PACKBUF_DEPTH && offset == 512, "513 are not read");
    tap_ok(parse(data, 514, 513, &value, &offset) == PACKBUF_OK, "unless the caller says so");
    data[513] = 0x91;
    tap_ok(parse(data, sizeof data, UINT32_MAX, &value, &offset) == PACKBUF_DEPTH && offset == 4096,
           "no limit goes beyond 4096");
    for (size_t i = 0; i < 1200; i += 2) memcpy(data + i, "\x81\x05", 2);
    tap_ok(parse(data, 1200, 0, &value, &offset) == PACKBUF_DEPTH && offset == 1024, "513 maps are not read");
    levels[0] = packbuf_int(1);
    for (size_t i = 1; i < 600; i++) levels[i] = packbuf_list(&levels[i - 1], 1);
    tap_ok(!packbuf_i_msgpack_can(&levels[512], 512, NULL, NULL) &&
               packbuf_i_msgpack_can(&levels[513], 512, NULL, NULL) == PACKBUF_DEPTH,
           "the same for values");
}

/* ---- tensors, media, opaque ---- */

static packbuf_status copy_hook(void *context, void *dst, const void *src, size_t size)
{
    int *left = (int *)context;
    if (--*left < 0) return PACKBUF_READ_ONLY;
    memcpy(dst, src, size);
    return PACKBUF_OK;
}

/* Writes, compares with the hex, parses, compares. */
static void round_trip(packbuf_value value, const char *hex, const char *what)
{
    uint8_t out[300], expected[300];
    packbuf_value again;
    uint64_t offset;
    size_t n = unhex(hex, expected), size = 0, measured = 0;
    packbuf_status status = packbuf_msgpack_write(&value, out, sizeof out, &size, NULL);
    int right = !status && !packbuf_msgpack_write(&value, NULL, 0, &measured, NULL) && measured == size && size == n &&
                memcmp(out, expected, n) == 0 && !parse(out, size, 0, &again, &offset) && packbuf_equal(&value, &again);
    tap_ok(right, "%s", what);
}

static void test_tensors(void)
{
    static const int16_t rows[2][3] = {{1, 2, 3}, {4, 5, -6}};
    static const uint64_t shape[2] = {2, 3}, across[2] = {3, 2}, none[3] = {0, 5, 7};
    static const int64_t transposed[2] = {2, 6}, backwards[2] = {-6, -2};
    static const double complex_number[2] = {1.5, -2.0};
    static const uint8_t bools[3] = {0, 1, 1}, not_bools[1] = {2};
    packbuf_tensor tensor;
    packbuf_device device;
    packbuf_error error;
    packbuf_value value, again;
    uint8_t out[100];
    size_t size;
    uint64_t offset;
    int copies = 100;
    memset(&tensor, 0, sizeof tensor);
    value = packbuf_tensor_value(&tensor);
    tensor.data = rows;
    tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 16);
    tensor.rank = 2;
    tensor.shape = shape;
    round_trip(value, "C72002 03001002 0200000000000000 0300000000000000 0100 0200 0300 0400 0500 FAFF", "a tensor");
    tensor.form = PACKBUF_FORM_ARRAY;
    tensor.shape = across;
    tensor.strides = transposed;
    round_trip(value, "C72002 02001002 0300000000000000 0200000000000000 0100 0400 0200 0500 0300 FAFF",
               "a transposed array");
    tensor.shape = shape;
    tensor.strides = backwards;
    tensor.data = &rows[1][2];
    round_trip(value, "C72002 02001002 0200000000000000 0300000000000000 FAFF 0500 0400 0300 0200 0100",
               "an array backwards");
    device.type = 2;
    device.id = 0;
    device.copy = copy_hook;
    device.context = &copies;
    tensor.device = &device;
    tap_ok(
        !packbuf_msgpack_write(&value, out, sizeof out, &size, &error) && size == 35 && out[23] == 0xFA && copies == 94,
        "a device's array: a copy for each piece");
    tensor.strides = NULL;
    tensor.data = rows;
    tap_ok(!packbuf_msgpack_write(&value, out, sizeof out, &size, NULL) && out[23] == 1 && copies == 93,
           "one when it is contiguous");
    tap_ok(!packbuf_msgpack_write(&value, NULL, 0, &size, NULL) && copies == 93 &&
               packbuf_msgpack_write(&value, out, 30, &size, NULL) == PACKBUF_CAPACITY && copies == 93,
           "none to measure, none into too small a destination");
    copies = 0;
    tap_ok(packbuf_msgpack_write(&value, out, sizeof out, &size, &error) == PACKBUF_READ_ONLY &&
               error.code == PACKBUF_READ_ONLY,
           "the hook's failure is passed on");
    device.copy = NULL;
    tap_ok(packbuf_msgpack_write(&value, out, sizeof out, &size, &error) == PACKBUF_UNSUPPORTED_DEVICE,
           "a device without a hook");
    tensor.device = NULL;
    tensor.rank = 0;
    tensor.form = PACKBUF_FORM_SCALAR;
    tensor.data = complex_number;
    tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_COMPLEX, 128);
    round_trip(value, "C71402 04058000 000000000000F83F 00000000000000C0", "a complex scalar");
    tensor.rank = 3;
    tensor.form = PACKBUF_FORM_TENSOR;
    tensor.shape = none;
    tensor.data = NULL;
    round_trip(value, "C71C02 03058003 0000000000000000 0500000000000000 0700000000000000",
               "a tensor without elements");
    tensor.rank = 1;
    tensor.shape = shape + 1;
    tensor.data = bools;
    tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8);
    round_trip(value, "C70F02 03060801 0300000000000000 000101", "a tensor of bools");
    tensor.rank = 0;
    tensor.data = not_bools;
    tap_ok(packbuf_msgpack_write(&value, out, sizeof out, &size, &error) == PACKBUF_BAD_BOOL,
           "a bool of 2 is not written");
    device.copy = copy_hook;
    copies = 9;
    tensor.device = &device;
    tap_ok(packbuf_msgpack_write(&value, out, sizeof out, &size, &error) == PACKBUF_BAD_BOOL, "nor from a device");
    tap_ok(parse(out, unhex("92 00 C70602 04021000 003C", out), 0, &again, &offset) == PACKBUF_OK &&
               again.as.list.items[1].as.tensor->form == PACKBUF_FORM_SCALAR &&
               (packbuf_i_big_endian() || again.as.list.items[1].as.tensor->data == kept + 9),
           "elements lie in the data, at any alignment");
}

static void can(packbuf_value value, packbuf_status expected, const char *what)
{
    packbuf_error error;
    size_t size;
    packbuf_status status = packbuf_msgpack_write(&value, NULL, 0, &size, &error);
    tap_ok(status == expected && (!status || error.code == status) &&
               packbuf_i_msgpack_can(&value, 512, NULL, NULL) == status,
           "%s: %s", packbuf_status_name(expected), what);
}

static void test_can(void)
{
  static const uint64_t huge[3] = {(uint64_t)1 << 40, (uint64_t)1 << 40, 0}, wide[1] = {(uint64_t)1 << 32},
                        one[1] = {1};
  packbuf_tensor tensor, good_tensor;
  packbuf_media media = packbuf_media_of("x", 1, "\xFF");
  packbuf_opaque opaque = {"x", 1, "p\x80", 2};
  packbuf_entry entries[2];
  packbuf_value items[2], value;
  memset(&good_tensor, 0, sizeof good_tensor);
  good_tensor.data = "x";
  good_tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  good_tensor.rank = 1;
  good_tensor.shape = one;
  tensor = good_tensor;
  value = packbuf_tensor_value(&tensor);
  can(value, PACKBUF_OK, "a tensor");
  tensor.dtype.bits = 7;
  can(value, PACKBUF_UNENCODABLE, "a dtype of 7 bits");
  tensor = good_tensor;
  tensor.rank = 9;
  can(value, PACKBUF_UNENCODABLE, "rank 9");
  tensor = good_tensor;
  tensor.form = PACKBUF_FORM_SCALAR;
  can(value, PACKBUF_UNENCODABLE, "a scalar of rank 1");
  tensor.form = PACKBUF_FORM_LIST;
  can(value, PACKBUF_UNENCODABLE, "form list");
  tensor.form = PACKBUF_FORM_BYTES;
  can(value, PACKBUF_UNENCODABLE, "form bytes");
  tensor = good_tensor;
  tensor.shape = wide;
  can(value, PACKBUF_UNENCODABLE, "4 GiB");
  tensor.rank = 3;
  tensor.shape = huge;
  can(value, PACKBUF_UNENCODABLE, "a shape that overflows");
  tensor = good_tensor;
  tensor.data = NULL;
  can(value, PACKBUF_UNENCODABLE, "no data");
  can(packbuf_missing(), PACKBUF_UNENCODABLE, "missing");
  can(packbuf_media_value(&media), PACKBUF_BAD_UTF8, "a mime type that is not UTF-8");
  media.mime = NULL;
  media.height = -2;
  can(packbuf_media_value(&media), PACKBUF_UNENCODABLE, "a height of -2");
  can(packbuf_opaque_value(&opaque), PACKBUF_BAD_UTF8, "a serializer that is not UTF-8");
  can(packbuf_bigint("5"), PACKBUF_UNENCODABLE, "a small integer as text");
  can(packbuf_float(from_bits(0x7FF8000000000001u)), PACKBUF_OK, "a NaN with a payload");
  items[0] = packbuf_int(1);
  items[1] = packbuf_missing();
  can(packbuf_list(items, 2), PACKBUF_UNENCODABLE, "missing in a list");
  entries[0].key = packbuf_int(1);
  entries[1].key = packbuf_uint(1);
  entries[0].value = entries[1].value = packbuf_null();
  can(packbuf_dict(entries, 2), PACKBUF_UNENCODABLE, "equal keys");
  entries[1].key = packbuf_float(1.0);
  can(packbuf_dict(entries, 2), PACKBUF_OK, "1 and 1.0");
  entries[1].key = packbuf_bool(1);
  can(packbuf_dict(entries, 2), PACKBUF_OK, "1 and true");
  entries[1].key = packbuf_list(NULL, 0);
  can(packbuf_dict(entries, 2), PACKBUF_UNENCODABLE, "a list as a key");
  entries[1].key = packbuf_tensor_value(&good_tensor);
  can(packbuf_dict(entries, 2), PACKBUF_UNENCODABLE, "a tensor as a key");
  entries[1].key = packbuf_missing();
  can(packbuf_dict(entries, 2), PACKBUF_UNENCODABLE, "missing as a key");
  entries[1].key = packbuf_string("\xFF");
  can(packbuf_dict(entries, 2), PACKBUF_BAD_UTF8, "a key that is not UTF-8");
}

static void test_extensions(void)
{
    static char text[70000];
    packbuf_media media = packbuf_media_of("xyz", 3, NULL);
    packbuf_opaque opaque = {"\x80\x05", 2, "pickle5", 7};
    packbuf_value value = packbuf_media_value(&media), again;
    static const size_t sizes[] = {1, 2, 3, 4, 8, 16, 17, 255, 256, 65535, 65536};
    static const unsigned heads[] = {2, 2, 3, 2, 2, 2, 3, 3, 4, 4, 6};
    uint8_t *out = (uint8_t *)malloc(80000);
    size_t size;
    uint64_t offset;
    int right = 1;
    round_trip(value, "D603 80 78797A", "media without attributes");
    media.mime = "a/b";
    media.mime_size = 3;
    media.height = 2;
    media.width = 300;
    media.channels = 0;
    media.mode = "";
    media.rate = 1.5;
    media.has_rate = 1;
    round_trip(
        value,
        "C73C03 86 A46D696D65 A3612F62 A6686569676874 02 A57769647468 CD012C A86368616E6E656C73 00 A46D6F6465 A0 A472617465 CB3FF8000000000000 78797A",
        "media with all attributes");
    round_trip(packbuf_opaque_value(&opaque), "C70A04 A77069636B6C6535 8005", "an opaque value");
    round_trip(packbuf_bigint("-9223372036854775809"), "C71401 2D39323233333732303336383534373735383039",
               "an integer beyond 64 bits");
    media = packbuf_media_of(text, 0, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        media.size = sizes[i] - 1; /* and the empty map */
        right &= !packbuf_msgpack_write(&value, out, 80000, &size, NULL) && size == sizes[i] + heads[i];
        right &= !parse(out, size, 0, &again, &offset) && packbuf_equal(&value, &again);
    }
    tap_ok(right, "extensions of 1 to 65536 bytes, each with the shortest head");
    free(out);
}

/* ---- many keys ---- */

static size_t make_map(uint8_t *to, uint32_t count, uint32_t first, uint32_t second, size_t *at)
{
    size_t n = 5;
    to[0] = 0xDF;
    for (int i = 0; i < 4; i++) to[1 + i] = (uint8_t)(count >> (24 - 8 * i));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = second && i == second ? first : i;
        if (second && i == second) *at = n;
        to[n++] = second && i == second ? 0xD2 : 0xCE;
        for (int k = 0; k < 4; k++) to[n++] = (uint8_t)(number >> (24 - 8 * k));
        to[n++] = 0xC0;
    }
    return n;
}

static void test_many_keys(void)
{
    static const uint32_t counts[] = {2, 31, 32, 33, 100, 4096, 4097, 8192, 10000, 60000};
    uint8_t *data = (uint8_t *)malloc(2000000);
    packbuf_value value;
    packbuf_error error;
    uint64_t offset;
    size_t at = 0, size;
    int right = 1;
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        uint32_t n = counts[c], second;
        right &=
            parse(data, make_map(data, n, 0, 0, &at), 0, &value, &offset) == PACKBUF_OK && value.as.dict.count == n;
        for (second = 1; second < n; second += n / 3 + 1) {
            size = make_map(data, n, second / 2, second, &at);
            right &= parse(data, size, 0, &value, &offset) == PACKBUF_BAD_MSGPACK && offset == at;
            right &= parse(data, size - 1, 0, &value, &offset) == PACKBUF_BAD_MSGPACK &&
                     offset == at; /* the equal key is the first error */
            data[size - 1] = 0xC1;
            right &= parse(data, size, 0, &value, &offset) == PACKBUF_BAD_MSGPACK && offset == at;
        }
        if (!right) tap_note("%d keys", (int)n);
    }
    tap_ok(right, "maps of 2 to 60000 keys, with and without an equal one");
    size = make_map(data, 300000, 0, 0, &at);
    tap_ok(packbuf_i_msgpack_check(data, size, 0, 0, &error) == PACKBUF_LIMIT &&
               parse(data, size, 0, &value, &offset) == PACKBUF_OK,
           "300000 keys are too many to check without memory, but are parsed");
    size = 0; /* 20 maps of 13 keys around one of 9000 */
    for (int level = 0; level < 20; level++) {
        data[size++] = 0x8D;
        for (uint8_t k = 0; k < 12; k++) {
            data[size++] = k;
            data[size++] = 0x91;
            data[size++] = 0x80;
        }
        data[size++] = 0x30;
    }
    size += make_map(data + size, 9000, 0, 0, &at);
    tap_ok(parse(data, size, 0, &value, &offset) == PACKBUF_OK &&
               packbuf_i_msgpack_check(data, size, 0, 0, NULL) == PACKBUF_OK,
           "nested maps with many keys");
    data[0] = 0x8E;
    memcpy(data + size, "\x05\xC0", 2);
    tap_ok(parse(data, size + 2, 0, &value, &offset) == PACKBUF_BAD_MSGPACK && offset == size,
           "an equal key after them");
    tap_ok(packbuf_i_msgpack_check(data, size + 2, 0, 0, &error) == PACKBUF_BAD_MSGPACK && error.offset == size,
           "is found without memory");
    free(data);
}

/* ---- every way to fail ---- */

static size_t make_rich(uint8_t *data)
{
  return unhex(
      "8C A26964 CE00012345 A474657874 A8636166C3A97878 78 01 93 01 CB3FF8000000000000 FF E1 C403000102 C0 C2 C2 81 C3 90 E0 A0"
      "CA3FC00000 C71402 04058000 000000000000F83F 00000000000000C0 A2C3A9 C73C03 86 A46D696D65 A3612F62 A6686569676874 02 A57769647468 CD012C"
      "A86368616E6E656C73 00 A46D6F6465 A0 A472617465 CB3FF8000000000000 78797A C400 C70A04 A77069636B6C6535 8005"
      "02 C71401 2D39323233333732303336383534373735383039 03 C70F02 03060801 0300000000000000 000101",
      data);
}

static void test_failures(void)
{
    uint8_t data[600], cut[600], out[600];
    size_t size = make_rich(data), full = 0, got = 0;
    packbuf_error error;
    packbuf_value value;
    packbuf_arena a;
    uint64_t offset;
    uint32_t random = 99;
    int right;
    packbuf_status status = parse(data, size, 0, &value, &offset);
    tap_ok(status == PACKBUF_OK, "the rich object is one");
    right = !packbuf_msgpack_write(&value, out, sizeof out, &full, NULL);
    for (size_t capacity = 0; capacity <= full; capacity++) {
        memset(cut, '#', sizeof cut);
        status = packbuf_msgpack_write(&value, cut, capacity, &got, &error);
        right &= got == full && status == (capacity < full ? PACKBUF_CAPACITY : PACKBUF_OK) && cut[capacity] == '#' &&
                 (!status || error.needed == full);
    }
    tap_ok(right && memcmp(cut, out, full) == 0, "a destination of any size");
    right = 1;
    for (size_t n = 0; n < size; n++) {
        status = parse(data, n, 0, &value, &offset);
        if (status == PACKBUF_BAD_MSGPACK && offset == n) continue;
        right = 0;
        tap_note("%d bytes: %s at %d", (int)n, packbuf_status_name(status), (int)offset);
    }
    tap_ok(right, "data cut anywhere end too early, at their end");
    right = 1;
    for (int i = 0; i < 60000; i++) {
        memcpy(cut, data, size);
        for (int changes = 1 + i % 3; changes > 0; changes--) {
            random = random * 1664525u + 1013904223u;
            cut[(random >> 16) % size] = (uint8_t)(random >> 8);
        }
        right &= (int)parse(cut, size, 0, &value, &offset) >= 0 && offset <= size;
    }
    tap_ok(right, "parser and checker agree on 60000 mutilated objects");
    right = 1;
    status = PACKBUF_OK;
    for (size_t room = 0; room < 3000; room++) {
        unsigned char *memory = (unsigned char *)malloc(room + 1);
        packbuf_arena_init_fixed(&a, memory, room);
        status = packbuf_msgpack_parse(data, size, 0, &a, &value, NULL);
        right &= status == PACKBUF_OK || status == PACKBUF_OUT_OF_MEMORY;
        free(memory);
    }
    tap_ok(right && status == PACKBUF_OK, "fixed arenas of 0 to 2999 bytes");
    packbuf_arena_init(&a, NULL);
    memset(cut, 0xDD, 500); /* lists that each claim what is left */
    for (size_t i = 0; i + 5 <= 500; i += 5) {
        cut[i + 1] = cut[i + 2] = 0;
        cut[i + 3] = (uint8_t)((500 - i - 5) >> 8);
        cut[i + 4] = (uint8_t)(500 - i - 5);
    }
    tap_ok(packbuf_msgpack_parse(cut, 500, 0, &a, &value, NULL) == PACKBUF_BAD_MSGPACK &&
               a.used <= 500 * sizeof value + 64,
           "claims are not believed twice");
    packbuf_arena_free(&a);
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
    uint8_t *data = (uint8_t *)malloc(200000);
    size_t at = 0, size;
    packbuf_allocator allocator;
    packbuf_arena a;
    packbuf_value value;
    packbuf_error error;
    packbuf_status status;
    meter m;
    uint64_t i;
    int right = 1;
    allocator.resize = meter_resize;
    allocator.context = &m;
    data[0] = 0x92;
    size = 1 + make_rich(data + 1);
    size += make_map(data + size, 9000, 0, 0, &at);
    for (i = 1;; i++) {
        memset(&m, 0, sizeof m);
        m.fail_at = i;
        packbuf_arena_init(&a, &allocator);
        status = packbuf_msgpack_parse(data, size, 0, &a, &value, &error);
        right &= status == PACKBUF_OK ||
                 (status == PACKBUF_OUT_OF_MEMORY && error.code == status && error.offset == PACKBUF_NOWHERE);
        packbuf_arena_free(&a);
        right &= m.live == 0;
        if (m.calls < i) break;
    }
    tap_ok(right && i > 3 && status == PACKBUF_OK, "each of %d allocations may fail", (int)i - 1);
    free(data);
}

/* Pointers that lead nowhere are refused, not followed. */
static void test_nowhere(void)
{
    static const packbuf_opaque opaque = {NULL, 3, "x", 1};
    packbuf_media media = packbuf_media_of(NULL, 3, NULL);
    packbuf_tensor tensor;
    packbuf_value list = packbuf_list(NULL, 2), bare = packbuf_string_n(NULL, 2), texts[3];
    packbuf_entry entry;
    memset(&tensor, 0, sizeof tensor);
    tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 8);
    tensor.rank = 1;
    can(packbuf_list(NULL, 2), PACKBUF_UNENCODABLE, "a list without items");
    can(packbuf_dict(NULL, 2), PACKBUF_UNENCODABLE, "a dict without entries");
    can(packbuf_list(&list, 1), PACKBUF_UNENCODABLE, "a list without items in a list");
    can(bare, PACKBUF_UNENCODABLE, "a string without data");
    can(packbuf_bytes(NULL, 2), PACKBUF_UNENCODABLE, "bytes without data");
    can(packbuf_media_value(NULL), PACKBUF_UNENCODABLE, "media that are NULL");
    can(packbuf_media_value(&media), PACKBUF_UNENCODABLE, "media without data");
    can(packbuf_opaque_value(NULL), PACKBUF_UNENCODABLE, "an opaque value that is NULL");
    can(packbuf_opaque_value(&opaque), PACKBUF_UNENCODABLE, "an opaque value without data");
    can(packbuf_tensor_value(NULL), PACKBUF_UNENCODABLE, "a tensor that is NULL");
    can(packbuf_tensor_value(&tensor), PACKBUF_UNENCODABLE, "a tensor without a shape");
    entry.key = bare;
    entry.value = packbuf_null();
    can(packbuf_dict(&entry, 1), PACKBUF_UNENCODABLE, "a key without data");
    texts[0] = bare;
    texts[1] = list;
    texts[2] = packbuf_dict(NULL, 1);
    for (unsigned i = 0; i < 3; i++) {
        size_t size;
        tap_ok(packbuf_json_write(&texts[i], NULL, 0, &size, NULL) == PACKBUF_UNENCODABLE, "JSON refuses them too (%u)",
               i);
    }
    texts[0] = packbuf_bigint("18446744073709551616");
    texts[0].as.text.data = NULL;
    can(texts[0], PACKBUF_UNENCODABLE, "a big integer without data");
}

/* A map of an integer to a list of two lists of two lists ... 2^25 times the same text, and no more than 2^20 bytes of
 * it are measured. */
static void test_vast(void)
{
    packbuf_value levels[26][2], row;
    packbuf_entry entry;
    packbuf_i_sink sink = {NULL, 0, 0, 1 << 20};
    levels[0][0] = levels[0][1] = packbuf_string("0123456789abcdef");
    for (unsigned i = 1; i < 26; i++) levels[i][0] = levels[i][1] = packbuf_list(levels[i - 1], 2);
    entry.key = packbuf_int(1);
    entry.value = levels[25][0];
    row = packbuf_dict(&entry, 1);
    tap_ok(packbuf_i_msgpack_encode(&row, PACKBUF_I_DEPTH, &sink, NULL) == PACKBUF_LIMIT && sink.size < (1 << 20) + 256,
           "measuring stops at its limit");
    sink.size = UINT64_MAX - 1;
    packbuf_i_push(&sink, NULL, 5);
    packbuf_i_push_byte(&sink, 0);
    tap_ok(sink.size == UINT64_MAX, "a count of bytes does not wrap");
}

int main(void)
{
    test_scalars();
    test_containers();
    test_lengths();
    test_bad();
    test_bad_extensions();
    test_cells();
    test_depth();
    test_tensors();
    test_can();
    test_nowhere();
    test_extensions();
    test_many_keys();
    test_failures();
    test_memory();
    test_vast();
    packbuf_arena_free(&arena);
    free(kept);
    return tap_plan_done();
}
