/* Fuzz target: schemas and arrays of Arrow made of any bytes: formats, names, metadata, lengths, offsets, counts and contents are the input's. The memory is
 * real, as Arrow's ABI has to be trusted for that: each buffer has what format, length and offset ask for, and text as far as its offsets reach. What
 * is taken can be packed and verified; what is refused is refused with a status. */
#include "../packbuf.h"
#include "../exchange/packbuf_exchange.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 1 << 12, NODES = 40, BLOCKS = 1024 };

typedef struct input {
    const uint8_t *at, *end;
    packbuf_arena arena;
    unsigned nodes, blocks;
    void *memory[BLOCKS];
} input;

static void demand(int holds)
{
    if (!holds) abort();
}

static unsigned byte_of(input *in) { return in->at < in->end ? *in->at++ : 0; }

/* Mostly small numbers, now and then one that lies. */
static int64_t number_of(input *in)
{
    const unsigned kind = byte_of(in);
    if (kind < 200) return kind % 24;
    if (kind < 240) return (int64_t)byte_of(in) * 9;
    return kind < 246 ? -(int64_t)byte_of(in) : kind < 251 ? INT64_MAX - byte_of(in) : (int64_t)byte_of(in) << (kind - 200);
}

/* Memory of exactly `size` bytes, which sanitizers watch, filled from the input. */
static uint8_t *memory_of(input *in, uint64_t size)
{
    uint8_t *memory = (uint8_t *)malloc(size ? (size_t)size : 1);
    demand(memory != NULL && in->blocks < BLOCKS);
    in->memory[in->blocks++] = memory;
    for (uint64_t i = 0; i < size; i++) memory[i] = (uint8_t)(i < 64 || in->at == in->end ? byte_of(in) : i * 7);
    return memory;
}

static void release_schema(struct ArrowSchema *schema) { schema->release = NULL; }
static void release_array(struct ArrowArray *array) { array->release = NULL; }

static const char *text_of(input *in)
{
    const unsigned size = byte_of(in) % 12;
    char *text = (char *)memory_of(in, size + 1);
    text[size] = 0;
    return text;
}

/* A known format, or any text. */
static const char *format_of(input *in)
{
    static const char *const formats[] = { "n", "b", "c", "C", "s", "S", "i", "I", "l", "L", "e", "f", "g", "z", "Z", "u", "U", "vz", "vu", "w:5", "tdD", "tdm",
        "tsu:", "tsn:UTC", "+l", "+L", "+w:2", "+w:0", "+s", "+s", "+m", "d:9,2", "+w:999999999", "ttm" };
    const unsigned which = byte_of(in) % 40;
    return which < sizeof formats / sizeof formats[0] ? formats[which] : text_of(in);
}

static const char *metadata_of(input *in)
{
    static const char *const keys[] = { "ARROW:extension:name", "packbuf.codec", "packbuf.dtype", "ARROW:extension:metadata", "packbuf.serializer", "k" };
    static const char *const texts[] = { "arrow.json", "msgpack_ragged", "bfloat16", "complex64", "{\"shape\":[1,2]}", "arrow.fixed_shape_tensor", "media_bytes", "list",
        "ragged_tensor", "float8_e5m2", "opaque_ragged", "pickle_ragged_fallback", "\x80" };
    const unsigned pairs = byte_of(in) % 3;
    uint8_t *memory = memory_of(in, 4 + pairs * 64), *at = memory + 4;
    const int32_t count = (int32_t)pairs;
    if (!pairs) return NULL;
    memset(memory, 0, 4 + pairs * 64);
    memcpy(memory, &count, 4);
    for (unsigned i = 0; i < 2 * pairs; i++) {
        const unsigned which = byte_of(in);
        const char *text = i % 2 ? texts[which % 13] : keys[which % 6];
        const int32_t length = which < 250 ? (int32_t)strlen(text) : -(int32_t)i;
        memcpy(at, &length, 4);
        if (length <= 0) break; /* ends them, or an empty one, behind which there is nothing but zeros */
        memcpy(at + 4, text, (size_t)length);
        at += 4 + length;
    }
    return (const char *)memory;
}

/* Bytes that the elements of a buffer take; 0 where it is none of these. */
static uint64_t width_of(const char *f)
{
    if (strcmp(f, "tdD") == 0) return 4;
    if (f[0] == 't') return 8;
    if (f[0] == 'w') return 5;
    if (f[0] == 'v') return 16;
    if (!f[0] || f[1]) return 0;
    return strchr("cC", f[0]) ? 1 : strchr("sSe", f[0]) ? 2 : strchr("iIf", f[0]) ? 4 : 8;
}

/* Offsets and, of text, as many bytes as they reach: those that reach too far are cut. */
static uint64_t offsets_of(input *in, uint8_t *offsets, uint64_t count, int wide)
{
    uint64_t most = 0, last = 0;
    for (uint64_t i = 0; i < count; i++) {
        int64_t offset = byte_of(in) < 250 ? (int64_t)(last += byte_of(in) % 5) : number_of(in);
        int32_t narrow;
        if (offset > MOST) offset = MOST;
        if (offset > (int64_t)most) most = (uint64_t)offset;
        narrow = (int32_t)offset;
        if (wide) memcpy(offsets + 8 * i, &offset, 8);
        else memcpy(offsets + 4 * i, &narrow, 4);
    }
    return most;
}

static void buffers_of(input *in, const char *f, struct ArrowArray *array)
{
    static const int64_t counts[] = { 2, 3, 1, 0, 4 };
    const int list = strcmp(f, "+l") == 0 || strcmp(f, "+L") == 0, text = f[0] && !f[1] && strchr("zZuU", f[0]) != NULL;
    const int view = f[0] == 'v', wide = f[0] == 'Z' || f[0] == 'U' || strcmp(f, "+L") == 0;
    const uint64_t span = array->length >= 0 && array->offset >= 0 && array->length < MOST && array->offset < MOST ? (uint64_t)(array->length + array->offset) : 0;
    const void **buffers = (const void **)packbuf_arena_alloc(&in->arena, 6 * sizeof *buffers, 8);
    const int64_t right = strcmp(f, "n") == 0 ? 0 : strcmp(f, "+s") == 0 || strncmp(f, "+w", 2) == 0 ? 1 : text ? 3 : view ? 4 : 2;
    demand(buffers != NULL);
    for (int i = 0; i < 6; i++) buffers[i] = NULL;
    array->n_buffers = byte_of(in) < 245 ? right : counts[byte_of(in) % 5];
    array->buffers = byte_of(in) == 255 ? NULL : buffers;
    if (byte_of(in) & 1) buffers[0] = memory_of(in, (span + 7) / 8);
    if (byte_of(in) == 255) return;
    if (list || text) {
        uint8_t *offsets = memory_of(in, (span + 1) * (wide ? 8 : 4));
        buffers[2] = memory_of(in, offsets_of(in, offsets, span + 1, wide));
        buffers[1] = offsets;
    } else if (view) {
        int64_t *sizes = (int64_t *)(void *)memory_of(in, 8);
        *sizes = byte_of(in);
        buffers[1] = memory_of(in, span * 16);
        buffers[2] = memory_of(in, (uint64_t)*sizes);
        buffers[3] = sizes;
    } else {
        buffers[1] = memory_of(in, f[0] == 'b' ? (span + 7) / 8 : span * width_of(f));
    }
}

static void make(input *in, unsigned depth, struct ArrowSchema **schema_out, struct ArrowArray **array_out)
{
    struct ArrowSchema *schema = (struct ArrowSchema *)packbuf_arena_alloc(&in->arena, sizeof *schema, 8);
    struct ArrowArray *array = (struct ArrowArray *)packbuf_arena_alloc(&in->arena, sizeof *array, 8);
    const char *f = depth ? format_of(in) : "+s";
    int64_t children;
    demand(schema && array);
    memset(schema, 0, sizeof *schema);
    memset(array, 0, sizeof *array);
    *schema_out = schema, *array_out = array;
    schema->format = f;
    schema->name = byte_of(in) < 8 ? NULL : text_of(in);
    schema->metadata = metadata_of(in);
    schema->release = byte_of(in) == 255 ? NULL : release_schema;
    array->release = byte_of(in) == 255 ? NULL : release_array;
    array->length = number_of(in);
    array->offset = byte_of(in) < 128 ? 0 : number_of(in);
    array->null_count = byte_of(in) < 200 ? -1 : number_of(in);
    buffers_of(in, f, array);
    /* no memory is that large here */
    if (array->length >= MOST || array->offset >= MOST) array->buffers = NULL;
    children = strcmp(f, "+s") == 0 ? 1 + byte_of(in) % 4 : f[0] == '+' ? 1 : 0;
    if (byte_of(in) > 250) children = byte_of(in) % 4;
    schema->children = (struct ArrowSchema **)packbuf_arena_alloc(&in->arena, 4 * sizeof *schema->children, 8);
    array->children = (struct ArrowArray **)packbuf_arena_alloc(&in->arena, 4 * sizeof *array->children, 8);
    demand(schema->children && array->children);
    for (; schema->n_children < children && in->nodes < NODES && depth < 8; in->nodes++)
        make(in, depth + 1, &schema->children[schema->n_children++], &array->children[array->n_children++]);
    if (byte_of(in) > 240 && in->nodes++ < NODES && depth < 8) make(in, depth + 1, &schema->dictionary, &array->dictionary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in;
    struct ArrowSchema *schema;
    struct ArrowArray *array;
    const struct ArrowArray *chunks[2];
    packbuf_arena arena;
    packbuf_batch batch;
    packbuf_view view;
    packbuf_error error;
    void *packed;
    uint64_t length;
    const unsigned twice = size && data[0] & 1;
    memset(&in, 0, sizeof in);
    in.at = data, in.end = data + size;
    packbuf_arena_init(&in.arena, NULL);
    packbuf_arena_init(&arena, NULL);
    arena.limit = 16 << 20;
    make(&in, 0, &schema, &array);
    chunks[0] = chunks[1] = array;
    if (!packbuf_batch_init(&batch, (uint64_t)(array->length > 0 && array->length < MOST ? array->length : 0) * (1 + twice), &arena, NULL, &error) &&
        !packbuf_arrow_import(&batch, schema, chunks, 1 + twice, &error) && !packbuf_pack(&batch, &packed, &length, &error))
        demand(!packbuf_open(&view, packed, length, 0, NULL, &error) && !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error));
    packbuf_arena_free(&arena);
    packbuf_arena_free(&in.arena);
    while (in.blocks) free(in.memory[--in.blocks]);
    return 0;
}
