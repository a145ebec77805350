/* Fuzz target: any header and payload of a block packed in blocks. The first bytes choose the width of units, how many there are, which of them are read, and the
 * header; the rest is the payload, in an allocation of exactly its size. All kernels of this processor read the same; one unit reads as all do; what passes
 * verification can be read.
 * May use: packbuf.h and its insides. Must not know: how blocks are packed. */
#include "tests/internals.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds)
{
    if (!holds)
        abort();
}

/* The same part by every set, into an allocation of exactly its size. Returns whether it could be read. */
static int read_part(const packbuf_i_block *block, const uint8_t *payload, uint32_t size, unsigned bits, unsigned units, unsigned first, unsigned count)
{
    const packbuf_i_lane_set *set;
    const size_t bytes = (size_t)count * (bits / 8);
    uint8_t *kept = (uint8_t *)malloc(bytes ? bytes : 1), *out = (uint8_t *)malloc(bytes ? bytes : 1);
    int could = 0;
    if (kept && out) {
        could = packbuf_i_block_units(packbuf_i_lane_set_at(0), block, payload, size, bits, units, first, count, kept, 0);
        for (unsigned i = 1; (set = packbuf_i_lane_set_at(i)) != NULL; i++) {
            demand(packbuf_i_block_units(set, block, payload, size, bits, units, first, count, out, (int)(i & 1)) == could);
            demand(!could || bytes == 0 || memcmp(out, kept, bytes) == 0);
        }
        for (unsigned i = 0; could && i < count; i += count / 16 + 1) {
            uint64_t unit = 0;
            demand(packbuf_i_block_unit(block, payload, size, bits, units, first + i, &unit));
            demand(unit == packbuf_i_unit_load(bits, kept + (size_t)i * (bits / 8)));
        }
    }
    free(kept);
    free(out);
    return could;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    packbuf_i_block block;
    unsigned bits, units, first, count;
    uint64_t unit;
    uint8_t *payload;
    int whole;
    if (size < 23 || size - 23 > PACKBUF_I_PAYLOAD_ROOM)
        return 0;
    bits = 8u << (data[0] & 3);
    units = 1 + packbuf_i_load16(data + 1) % (65536 / bits);
    first = packbuf_i_load16(data + 3) % (units + 1);
    count = packbuf_i_load16(data + 5) % (units - first + 1);
    packbuf_i_block_load(&block, data + 7);
    data += 23;
    size -= 23;
    if (bits < 64)
        block.base &= ((uint64_t)1 << bits) - 1;
    payload = (uint8_t *)malloc(size ? size : 1);
    if (payload == NULL)
        return 0;
    if (size)
        memcpy(payload, data, size);
    demand(packbuf_i_block_unsound(&block, bits) >= 0 || packbuf_i_block_size(&block, bits, units) == UINT32_MAX || packbuf_i_block_size(&block, bits, units) <= 8192 + 256);
    whole = packbuf_i_block_whole(&block, payload, (uint32_t)size, bits, units);
    demand(read_part(&block, payload, (uint32_t)size, bits, units, 0, units) || !whole);
    demand(read_part(&block, payload, (uint32_t)size, bits, units, first, count) || !whole);
    demand(packbuf_i_block_unit(&block, payload, (uint32_t)size, bits, units, units - 1, &unit) || !whole);
    demand(!packbuf_i_block_unit(&block, payload, (uint32_t)size, bits, units, units, &unit));
    free(payload);
    return 0;
}
