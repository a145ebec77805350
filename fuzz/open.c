/* Fuzz target: any bytes as a packed buffer, its checksums put right so that what lies behind them is reached. It is opened without a look at the records,
 * verified at each level, and read in every way there is, whatever verification said; what is handed out is touched to its end. What passed
 * verification in full can be read in full. Mutations change fields of records to numbers that matter.
 * May use: packbuf.h and its insides. Must not know: how the vectors were made. */
#include "tests/internals.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

#define ARENA_LIMIT (1u << 18)
#define LOOKED_AT 64 /* nodes and buffers of one input that are read */

static volatile unsigned touched;
static int verified;

static void demand(int holds)
{
    if (!holds)
        abort();
}

/* What passed verification is refused only for want of room, or for what a reader may not know. */
static int fine(packbuf_status status)
{
    demand(!verified || status == PACKBUF_OK || status == PACKBUF_LIMIT || status == PACKBUF_OUT_OF_MEMORY || status >= PACKBUF_UNSUPPORTED_VERSION);
    return status == PACKBUF_OK;
}

static void touch(const void *bytes, uint64_t size)
{
    uint64_t step = size > 4096 ? size / 4096 : 1;
    for (uint64_t i = 0; i < size; i += step)
        touched += ((const uint8_t *)bytes)[i];
    if (size)
        touched += ((const uint8_t *)bytes)[size - 1];
}

static void touch_value(const packbuf_value *value)
{
    uint64_t bytes;
    switch (value->kind) {
    case PACKBUF_STRING:
    case PACKBUF_BYTES:
    case PACKBUF_BIGINT: touch(value->as.text.data, value->as.text.size); break;
    case PACKBUF_MEDIA:
        touch(value->as.media->data, value->as.media->size);
        touch(value->as.media->mime, value->as.media->mime_size);
        touch(value->as.media->mode, value->as.media->mode_size);
        break;
    case PACKBUF_OPAQUE:
        touch(value->as.opaque->data, value->as.opaque->size);
        touch(value->as.opaque->serializer, value->as.opaque->serializer_size);
        break;
    case PACKBUF_TENSOR:
        demand(value->as.tensor->rank <= PACKBUF_MAX_RANK);
        if (packbuf_i_product(value->as.tensor->shape, value->as.tensor->rank, &bytes))
            touch(value->as.tensor->data, bytes * packbuf_i_dtype_bytes(value->as.tensor->dtype));
        break;
    case PACKBUF_LIST:
        for (size_t i = 0; i < value->as.list.count; i++)
            touch_value(&value->as.list.items[i]);
        break;
    case PACKBUF_DICT:
        for (size_t i = 0; i < value->as.dict.count; i++) {
            touch_value(&value->as.dict.entries[i].key);
            touch_value(&value->as.dict.entries[i].value);
        }
        break;
    default: break;
    }
}

/* What is packed reads the same whole, in part and one by one; what was verified can be read. */
static void read_packed(const packbuf_view *view, const packbuf_buffer *buffer)
{
    const uint64_t units = packbuf_i_unit_count(buffer->dtype, buffer->count), unit = packbuf_i_unit_bits(buffer->dtype) / 8;
    const uint64_t first = units / 3, part = units - first < 5000 ? units - first : 5000;
    const uint64_t each = buffer->dtype.bits == 1 ? 8 : 1;
    uint64_t length;
    packbuf_i_unit_window window;
    packbuf_buffer windowed = *buffer;
    uint8_t *whole, *some;
    packbuf_status status;
    if (!packbuf_i_byte_length(buffer->count, buffer->dtype, &length) || length > 1 << 18)
        return;
    whole = (uint8_t *)malloc((size_t)length + 1), some = (uint8_t *)malloc((size_t)(part * unit) + 1);
    demand(whole != NULL && some != NULL);
    window.count = 0;
    windowed.window = &window;
    status = packbuf_copy_elements(view, buffer, 0, buffer->count, whole, length, NULL);
    demand(!verified || status == PACKBUF_OK);
    if (status == PACKBUF_OK) {
        const uint64_t left = buffer->count - first * each;
        demand(packbuf_copy_elements(view, buffer, first * each, left < part * each ? left : part * each, some, part * unit, NULL) == PACKBUF_OK);
        demand(memcmp(some, whole + first * unit, (size_t)(part * unit)) == 0);
        for (uint64_t i = 0; i < units; i += 1 + units / 997) {
            uint64_t one = 1, other = 2, both;
            demand(packbuf_i_unpack_unit(buffer, (unsigned)unit * 8, i, &one) && packbuf_i_unpack_unit(&windowed, (unsigned)unit * 8, i, &other));
            both = packbuf_i_unit_load((unsigned)unit * 8, whole + i * unit);
            demand(one == other && (one == both || (buffer->dtype.bits == 1 && i + 1 == units)));
        }
    }
    free(whole);
    free(some);
}

static void read_buffer(const packbuf_view *view, uint32_t index)
{
    packbuf_buffer buffer;
    const void *elements = NULL;
    uint64_t length;
    uint8_t *room;
    if (!fine(packbuf_get_buffer_at(view, index, &buffer, NULL)))
        return;
    if (buffer.headers)
        read_packed(view, &buffer);
    if (packbuf_get_typed(&buffer, buffer.dtype, &elements, NULL) == PACKBUF_OK && packbuf_i_byte_length(buffer.count, buffer.dtype, &length))
        touch(elements, length);
    for (unsigned part = 0; part < 2; part++) {
        uint64_t first = part ? buffer.count / 2 / 8 * 8 : 0, count = buffer.count - first < 100 ? buffer.count - first : 100;
        demand(packbuf_i_byte_length(count, buffer.dtype, &length));
        if (length > 65536)
            continue;
        room = (uint8_t *)malloc(length ? (size_t)length : 1);
        demand(room != NULL);
        if (packbuf_copy_elements(view, &buffer, first, count, room, length, NULL) == PACKBUF_OK)
            touch(room, length);
        free(room);
    }
}

/* The pieces of a cell of elements (not items) lie within the data. */
static void touch_pieces(const packbuf_column *column, const packbuf_piece *pieces, unsigned count)
{
    const uint64_t element = column->data.dtype.bits / 8u;
    demand(count <= 2);
    if (column->node.kind != PACKBUF_LEAF || column->node.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED)
        return;
    for (unsigned i = 0; i < count; i++) {
        demand(pieces[i].count != 0 && pieces[i].first <= column->data.count && pieces[i].count <= column->data.count - pieces[i].first);
        if (column->data.bytes && column->data.packing == 0 && element)
            touch(column->data.bytes + pieces[i].first * element, pieces[i].count * element);
    }
}

static void read_cells(const packbuf_column *column)
{
    const uint64_t rows[] = { 0, 1, 2, column->node.rows / 2, column->node.rows - 1, column->node.rows };
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t first, count, shape[PACKBUF_MAX_RANK];
        const void *bytes;
        unsigned rank, piece_count = 0;
        packbuf_piece pieces[2];
        int state;
        packbuf_status status;
        if (rows[i] >= column->node.rows) {
            demand(packbuf_cell_state(column, rows[i], &state, NULL) == PACKBUF_OUT_OF_RANGE);
            continue;
        }
        (void)fine(packbuf_cell_state(column, rows[i], &state, NULL));
        (void)fine(packbuf_stored_row(column, rows[i], &first, NULL));
        status = packbuf_cell_extent(column, rows[i], &first, &count, NULL);
        if (status != PACKBUF_NOT_STORED)
            (void)fine(status);
        if (fine(packbuf_cell_pieces(column, rows[i], pieces, &piece_count, NULL)))
            touch_pieces(column, pieces, piece_count);
        status = packbuf_cell_shape(column, rows[i], &rank, shape, NULL);
        demand(status == PACKBUF_WRONG_TYPE || !fine(status) || rank <= PACKBUF_MAX_RANK);
        status = packbuf_cell_bytes(column, rows[i], &bytes, &count, NULL);
        if (status != PACKBUF_WRONG_TYPE && status != PACKBUF_NOT_STORED && fine(status))
            touch(bytes, count);
    }
}

static void read_values(const packbuf_view *view, const packbuf_node *node)
{
    static uint8_t memory[8192];
    packbuf_value values[40];
    packbuf_arena arena;
    uint64_t count = node->rows < 40 ? node->rows : 40;
    for (unsigned part = 0; part < 3; part++) { /* the first rows, the last, and the first with hardly any memory */
        if (part < 2)
            packbuf_arena_init(&arena, NULL);
        else
            packbuf_arena_init_fixed(&arena, memory, sizeof memory);
        arena.limit = ARENA_LIMIT;
        if (fine(packbuf_read_column(view, node->index, part == 1 ? node->rows - count : 0, count, &arena, values, NULL)))
            for (uint64_t i = 0; i < count; i++)
                touch_value(&values[i]);
        packbuf_arena_free(&arena);
    }
}

static void read_node(const packbuf_view *view, uint32_t index)
{
    char path[64];
    packbuf_node node, found;
    packbuf_column column;
    packbuf_buffer buffer;
    (void)packbuf_node_path(view, index, path, sizeof path);
    demand(memchr(path, 0, sizeof path) != NULL);
    if (!fine(packbuf_get_node(view, index, &node, NULL)))
        return;
    touch(node.name.data, node.name.size);
    touch(node.parameter.data, node.parameter.size);
    (void)packbuf_find(view, node.scope, path, &found, NULL);
    for (int role = 0; role < 12; role++)
        (void)packbuf_get_buffer(view, &node, (packbuf_role)role, 0, &buffer, NULL);
    if (fine(packbuf_open_column(view, index, &column, NULL)))
        read_cells(&column);
    read_values(view, &node);
}

static void read_rows(const packbuf_view *view)
{
    packbuf_value values[8];
    packbuf_arena arena;
    uint64_t count = view->rows < 8 ? view->rows : 8;
    packbuf_arena_init(&arena, NULL);
    arena.limit = ARENA_LIMIT;
    if (fine(packbuf_read_batch_values(view, &arena, values, NULL)))
        touch_value(values);
    if (fine(packbuf_read_rows(view, view->rows - count, count, &arena, values, NULL)))
        for (uint64_t i = 0; i < count; i++)
            touch_value(&values[i]);
    packbuf_arena_free(&arena);
}

/* Checksums that match, where there are any. */
static void put_right(uint8_t *data, size_t size)
{
    const packbuf_i_crc_kernel *kernel = packbuf_i_crc_kernel_best();
    uint64_t total, head, index;
    if (size < 128)
        return;
    total = packbuf_i_load64(data + 24), head = packbuf_i_load64(data + 32), index = packbuf_i_load64(data + 40);
    if (total > size || head > total || head < 128 || index > total - head)
        return;
    for (uint64_t at = head + index, to = head; (data[20] & 1) && at < total && to + 4 <= head + index; at += 65536, to += 4)
        packbuf_i_store32(data + to, kernel->crc(0, data + at, total - at < 65536 ? (size_t)(total - at) : 65536));
    packbuf_i_store32(data + 56, kernel->crc(0, data + head, (size_t)index));
    memset(data + 60, 0, 4);
    packbuf_i_store32(data + 60, kernel->crc(0, data, (size_t)head));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    packbuf_limits limits = packbuf_default_limits();
    packbuf_view view;
    packbuf_error error;
    uint8_t *copy = (uint8_t *)malloc(size ? size : 1);
    demand(copy != NULL);
    if (size)
        memcpy(copy, data, size);
    put_right(copy, size);
    limits.head_bytes = 1 << 20;
    limits.nodes = limits.buffers = limits.metadata = 1 << 14;
    limits.decoded_bytes = 1 << 18;
    limits.cell_bytes = 1 << 16;
    verified = 0;
    if (packbuf_open(&view, copy, size, 0, &limits, &error) == PACKBUF_OK) {
        for (int level = PACKBUF_LEVEL_HEAD; level <= PACKBUF_LEVEL_FULL; level++)
            verified = packbuf_verify(&view, (packbuf_level)level, &error) == PACKBUF_OK;
        for (uint32_t i = 0; i < view.metadata_count && i < LOOKED_AT; i++) {
            packbuf_metadata pair;
            memset(&pair, 0, sizeof pair);
            if (!fine(packbuf_get_metadata(&view, i, &pair, &error)))
                continue;
            touch(pair.key.data, pair.key.size);
            touch(pair.text.data, pair.text.size);
        }
        for (uint32_t i = 0; i < view.buffer_count && i < LOOKED_AT; i++)
            read_buffer(&view, i);
        for (uint32_t i = 0; i < view.node_count && i < LOOKED_AT; i++)
            read_node(&view, i);
        read_rows(&view);
    }
    free(copy);
    return 0;
}

/* ---- mutations, for libFuzzer ---- */

static uint64_t chance(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t number_that_matters(uint64_t *state, const uint8_t *data, size_t size)
{
    static const uint64_t edges[] = { 0, 1, 7, 8, 15, 16, 17, 63, 64, 255, 256, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFF, (uint64_t)1 << 32, (uint64_t)1 << 39,
        (uint64_t)1 << 48, (uint64_t)1 << 60, (uint64_t)1 << 61, (uint64_t)1 << 63, UINT64_MAX / 2, UINT64_MAX - 1, UINT64_MAX };
    switch (chance(state) % 5) {
    case 0: return chance(state) % 20;
    case 1: return packbuf_i_load64(data + chance(state) % (size - 7));
    case 2: return packbuf_i_load64(data + 48) + chance(state) % 5 - 2; /* rows */
    case 3: return chance(state) % (size + 1);
    default: return edges[chance(state) % (sizeof edges / sizeof edges[0])];
    }
}

/* A field of a block header, or a word of what a payload begins with, of a buffer that is packed. */
static void mutate_block(uint64_t *state, uint8_t *data, size_t size)
{
    static const uint8_t fields[7][2] = { { 0, 8 }, { 0, 1 }, { 8, 4 }, { 12, 1 }, { 13, 1 }, { 14, 1 }, { 15, 1 } };
    const uint64_t nodes = packbuf_i_load32(data + 64), buffers = packbuf_i_load32(data + 68);
    const uint64_t node_stride = packbuf_i_load16(data + 80), buffer_stride = packbuf_i_load16(data + 82);
    const uint8_t *field = fields[chance(state) % 7];
    uint64_t at, headers, width = field[1], number = number_that_matters(state, data, size);
    uint32_t k;
    for (unsigned tries = 0; buffers != 0 && tries < 16; tries++) {
        at = 128 + nodes * node_stride + chance(state) % buffers * buffer_stride;
        if (at > size || size - at < 64)
            return;
        if (data[at + 7] != 1)
            continue;
        k = (uint32_t)(chance(state) % (packbuf_i_load64(data + at + 16) / 1024 + 1));
        headers = packbuf_i_load64(data + at + 56) + (chance(state) & 1 ? 0 : k * 16u);
        if (headers > size || size - headers < 16)
            continue;
        at = chance(state) & 1 ? headers + field[0] : packbuf_i_load64(data + at + 24) + packbuf_i_load32(data + headers + 8) * UINT64_C(64) + chance(state) % 80;
        if (at > size || size - at < width)
            continue;
        if (field[0] == 12)
            number = chance(state) % 7 + (chance(state) & 1 ? 128 : 0);
        for (unsigned i = 0; i < width; i++)
            data[at + i] = (uint8_t)(number >> (8 * i));
        return;
    }
}

/* A field of a node or buffer record, a word of the strings or of the index, or a byte anywhere. */
static void mutate_field(uint64_t *state, uint8_t *data, size_t size)
{
    static const uint8_t fields[2][20][2] = {
        { { 0, 4 }, { 4, 4 }, { 8, 4 }, { 12, 4 }, { 16, 4 }, { 20, 2 }, { 22, 1 }, { 23, 1 }, { 24, 1 }, { 25, 1 }, { 26, 1 }, { 27, 1 }, { 28, 2 }, { 30, 1 },
            { 31, 1 }, { 32, 4 }, { 36, 4 }, { 40, 4 }, { 48, 8 }, { 48, 8 } },
        { { 0, 4 }, { 4, 1 }, { 5, 1 }, { 6, 1 }, { 6, 1 }, { 7, 1 }, { 8, 1 }, { 9, 1 }, { 10, 2 }, { 12, 4 }, { 16, 8 }, { 16, 8 }, { 24, 8 }, { 32, 8 },
            { 40, 8 }, { 40, 1 }, { 48, 8 }, { 48, 8 }, { 56, 8 }, { 16, 8 } }
    };
    uint64_t nodes = packbuf_i_load32(data + 64), buffers = packbuf_i_load32(data + 68), head = packbuf_i_load64(data + 32);
    uint64_t node_stride = packbuf_i_load16(data + 80), buffer_stride = packbuf_i_load16(data + 82), at = chance(state) % size, number;
    unsigned part = (unsigned)(chance(state) % 8), width = 1;
    const uint8_t *field = fields[part >= 3][chance(state) % 20];
    if (part < 6 && (part < 3 ? nodes : buffers) != 0) {
        at = 128 + (part < 3 ? chance(state) % nodes * node_stride : nodes * node_stride + chance(state) % buffers * buffer_stride) + field[0];
        width = field[1];
    } else if (part == 6 && head != 0 && head < size) {
        at = (chance(state) & 1 ? head + chance(state) % (size - head) : chance(state) % head) & ~(uint64_t)3;
        width = chance(state) & 1 ? 8 : 4;
    }
    if (at >= size || width > size - at)
        return;
    number = number_that_matters(state, data, size);
    for (unsigned i = 0; i < width; i++)
        data[at + i] = (uint8_t)(number >> (8 * i));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t state = seed * 0x9E3779B97F4A7C15u | 1;
    (void)max_size;
    for (unsigned i = 0; i <= seed % 4 && size >= 128; i++)
        if (chance(&state) % 3 == 0)
            mutate_block(&state, data, size);
        else
            mutate_field(&state, data, size);
    return size;
}
