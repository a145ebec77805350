/* Fuzz target: any bytes as a MessagePack object. The parser and the checker give the same answer; what is parsed is written, reads back equal and
 * is written the same again. */
#include "tests/internals.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds)
{
    if (!holds) abort();
}

static void again(const packbuf_value *value)
{
    packbuf_arena arena;
    packbuf_value read;
    size_t size = 0, same = 0;
    uint8_t *bytes, *second;
    packbuf_arena_init(&arena, NULL);
    demand(packbuf_msgpack_write(value, NULL, 0, &size, NULL) == PACKBUF_OK);
    bytes = (uint8_t *)malloc(size);
    second = (uint8_t *)malloc(size);
    demand(bytes && second && packbuf_msgpack_write(value, bytes, size, &same, NULL) == PACKBUF_OK && same == size);
    demand(packbuf_msgpack_parse(bytes, size, 0, &arena, &read, NULL) == PACKBUF_OK && packbuf_equal(value, &read));
    demand(packbuf_msgpack_write(&read, second, size, &same, NULL) == PACKBUF_OK && same == size && memcmp(bytes, second, size) == 0);
    packbuf_arena_free(&arena);
    free(bytes);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    packbuf_arena arena;
    packbuf_value value;
    packbuf_error error, checked;
    packbuf_status status, check, cell;
    size_t length;
    packbuf_arena_init(&arena, NULL);
    status = packbuf_msgpack_parse(data, size, 0, &arena, &value, &error);
    check = packbuf_i_msgpack_check(data, size, 0, 0, &checked);
    cell = packbuf_i_msgpack_check(data, size, 0, 1, NULL);
    if (check != PACKBUF_LIMIT) {
        demand(status == check && (!status || (error.offset == checked.offset && error.offset <= size)));
        demand(cell == (status ? status : value.kind == PACKBUF_NULL ? PACKBUF_BAD_MSGPACK : PACKBUF_OK));
    }
    demand(arena.used <= 100 * (uint64_t)size + 100); /* memory is bounded by the data, whatever they claim */
    if (!status) {
        again(&value);
        demand((packbuf_i_json_can(&value, 512, NULL, NULL) == PACKBUF_OK) == (packbuf_json_write(&value, NULL, 0, &length, NULL) == PACKBUF_OK));
    }
    packbuf_arena_free(&arena);
    return 0;
}
