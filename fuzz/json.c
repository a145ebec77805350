/* Fuzz target: any bytes as JSON text. The parser and the checker give the same answer; what is parsed is written, reads back equal and is
 * written the same again, as JSON and as MessagePack. */
#include "tests/internals.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds)
{
    if (!holds) abort();
}

static void json_again(const packbuf_value *value)
{
    packbuf_arena arena;
    packbuf_value again;
    size_t size = 0, same = 0;
    char *text, *second;
    packbuf_arena_init(&arena, NULL);
    demand(packbuf_json_write(value, NULL, 0, &size, NULL) == PACKBUF_OK);
    text = (char *)malloc(size);
    second = (char *)malloc(size);
    demand(text && second && packbuf_json_write(value, text, size, &same, NULL) == PACKBUF_OK && same == size);
    demand(packbuf_json_parse(text, size, 0, &arena, &again, NULL) == PACKBUF_OK && packbuf_equal(value, &again));
    demand(packbuf_json_write(&again, second, size, &same, NULL) == PACKBUF_OK && same == size && memcmp(text, second, size) == 0);
    packbuf_arena_free(&arena);
    free(text);
    free(second);
}

static void msgpack_again(const packbuf_value *value)
{
    packbuf_arena arena;
    packbuf_value again;
    size_t size = 0;
    uint8_t *bytes;
    packbuf_arena_init(&arena, NULL);
    demand(packbuf_msgpack_write(value, NULL, 0, &size, NULL) == PACKBUF_OK);
    bytes = (uint8_t *)malloc(size);
    demand(bytes && packbuf_msgpack_write(value, bytes, size, &size, NULL) == PACKBUF_OK);
    demand(packbuf_msgpack_parse(bytes, size, 0, &arena, &again, NULL) == PACKBUF_OK && packbuf_equal(value, &again));
    packbuf_arena_free(&arena);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    packbuf_arena arena;
    packbuf_value value;
    packbuf_error error, checked;
    packbuf_status status, check, cell;
    packbuf_arena_init(&arena, NULL);
    status = packbuf_json_parse((const char *)data, size, 0, &arena, &value, &error);
    check = packbuf_i_json_check(data, size, 0, 0, &checked);
    cell = packbuf_i_json_check(data, size, 0, 1, NULL);
    if (check != PACKBUF_LIMIT) {
        demand(status == check && (!status || (error.offset == checked.offset && error.offset <= size)));
        demand(cell == (status ? status : value.kind == PACKBUF_NULL ? PACKBUF_BAD_JSON : PACKBUF_OK));
    }
    if (!status) {
        json_again(&value);
        msgpack_again(&value);
    }
    packbuf_arena_free(&arena);
    return 0;
}
