/* Fuzz target: the packing API driven by bytes: dense, ragged and per-row arrays of any shape and stride, texts, dynamic values, schemas, metadata, devices
 * that fail, arenas with a limit. Whatever it is told, it ends with a size or an error; what it packs is valid, of the measured size, and can be read. With a
 * packing that the input's size chooses, and fields' own, it reads as it does plain, and has the same bytes in parts.
 * May use: packbuf.h and its insides. Must not know: what the batch will be packed as. */
#include "packbuf.h"
#include <string.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define POOL 4096 /* bytes that arrays may lie in */

typedef struct source {
    const uint8_t *data;
    size_t size;
    packbuf_arena arena; /* what the batch points to */
    uint8_t *pool;
    packbuf_device device;
    unsigned copies; /* that the device still makes */
} source;

static void demand(int holds)
{
    if (!holds)
        abort();
}

static uint8_t byte(source *s)
{
    if (!s->size)
        return 0;
    s->size--;
    return *s->data++;
}

/* Mostly small, sometimes one that overflows something. */
static uint64_t number(source *s)
{
    static const uint64_t large[] = { 255, 65536, 1u << 20, (uint64_t)1 << 32, (uint64_t)1 << 47, (uint64_t)1 << 61, (uint64_t)1 << 62, (uint64_t)1 << 63, UINT64_MAX };
    uint8_t b = byte(s);
    return b < 240 ? b % 7u : b < 247 ? b - 240u + 7u : large[b - 247u];
}

static void *take(source *s, uint64_t count, size_t size)
{
    uint8_t *memory = count < 65536 ? (uint8_t *)packbuf_arena_alloc(&s->arena, (size_t)count * size + 1, 16) : NULL;
    demand(memory != NULL);
    memset(memory, 0, (size_t)count * size + 1);
    return memory;
}

static packbuf_status copy(void *context, void *dst, const void *src, size_t size)
{
    source *s = (source *)context;
    if (!s->copies)
        return PACKBUF_NOT_STORED;
    s->copies--;
    memcpy(dst, src, size);
    return PACKBUF_OK;
}

static packbuf_dtype dtype(source *s)
{
    static const packbuf_dtype known[] = {
        { 0, 8, 1 }, { 0, 16, 1 }, { 0, 32, 1 }, { 0, 64, 1 }, { 1, 8, 1 }, { 1, 16, 1 }, { 1, 32, 1 }, { 1, 64, 1 }, { 2, 16, 1 }, { 2, 32, 1 },
        { 2, 64, 1 }, { 4, 16, 1 }, { 5, 64, 1 }, { 5, 128, 1 }, { 6, 8, 1 }, { 10, 8, 1 }, { 12, 8, 1 }, { 1, 1, 1 }, { 2, 32, 2 }, { 9, 9, 9 }, { 2, 0, 1 }
    };
    return known[byte(s) % (sizeof known / sizeof known[0])];
}

/* Fills *tensor; all its elements lie in the pool, or it has none, or its shape or strides are refused. first: the first dimension, when the
 * caller has one in mind. */
static void tensor(source *s, packbuf_tensor *t, const uint64_t *first)
{
    uint64_t *shape = (uint64_t *)take(s, 8, 8), reach = 0;
    int64_t *strides = (int64_t *)take(s, 8, 8), low = 0;
    uint8_t flags = byte(s);
    int wild = 0;
    memset(t, 0, sizeof *t);
    t->dtype = dtype(s);
    t->form = byte(s) % 6;
    t->rank = byte(s) % 5;
    if (flags & 64)
        t->rank = byte(s) % 10;
    if (t->rank > 8)
        return; /* shape NULL */
    t->shape = shape;
    for (unsigned d = 0; d < t->rank; d++)
        shape[d] = d == 0 && first ? *first : number(s);
    reach = (t->dtype.bits * t->dtype.lanes + 7u) / 8u;
    if (flags & 1) {
        t->strides = strides;
        for (unsigned d = t->rank; d-- > 0;) {
            int8_t step = (int8_t)byte(s);
            strides[d] = flags & 2 ? step : (int64_t)reach * (step % 3);
            if (shape[d] == 0)
                wild |= 2; /* no elements */
            else if (shape[d] > POOL && strides[d])
                wild |= 1;
            else if (strides[d] < 0)
                low += strides[d] * (int64_t)(shape[d] - 1);
            else
                reach += (uint64_t)strides[d] * (shape[d] > POOL ? 0 : shape[d] - 1);
            if (shape[d] > POOL)
                wild |= 4; /* one element over and over: valid, but a long way */
        }
    } else {
        for (unsigned d = 0; d < t->rank; d++) {
            if (shape[d] == 0)
                wild |= 2;
            if (shape[d] > POOL || reach > POOL)
                wild |= 1;
            else
                reach *= shape[d];
        }
    }
    if (wild & 2) {
        t->data = NULL;
    } else if (wild || reach - (uint64_t)low > POOL) { /* refused for its size, or made so */
        t->data = NULL;
    } else {
        size_t room = (size_t)(POOL - reach + (uint64_t)low);
        t->data = s->pool + (size_t)-low + (room ? byte(s) % room : 0);
    }
    if (flags & 4)
        t->device = &s->device;
}

static packbuf_value value(source *s, unsigned depth);

static packbuf_value text(source *s)
{
    size_t size = byte(s);
    const char *at = (const char *)s->data;
    if (size > 200)
        return packbuf_string_n(NULL, 0);
    size %= 24;
    if (size > s->size)
        size = s->size;
    s->data += size;
    s->size -= size;
    return packbuf_string_n(at, size);
}

static packbuf_value list(source *s, unsigned depth, int dict)
{
    size_t count = byte(s) % 12u;
    packbuf_entry *entries;
    packbuf_value *items;
    if (dict) {
        entries = (packbuf_entry *)take(s, count, sizeof *entries);
        for (size_t i = 0; i < count; i++) {
            entries[i].key = byte(s) % 8 ? text(s) : value(s, 0);
            entries[i].value = value(s, depth - 1);
        }
        return packbuf_dict(count ? entries : NULL, count);
    }
    items = (packbuf_value *)take(s, count, sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = i && byte(s) % 2 ? items[i - 1] : value(s, depth - 1);
    return packbuf_list(count ? items : NULL, count);
}

static packbuf_value media(source *s)
{
    packbuf_media *m = (packbuf_media *)take(s, 1, sizeof *m);
    packbuf_value bytes = text(s), mime = text(s), mode = text(s);
    uint8_t flags = byte(s);
    *m = packbuf_media_of(bytes.as.text.data, bytes.as.text.size, NULL);
    if (flags & 1)
        m->mime = mime.as.text.data, m->mime_size = mime.as.text.size;
    if (flags & 2)
        m->mode = mode.as.text.data, m->mode_size = mode.as.text.size;
    if (flags & 4)
        m->height = (int8_t)byte(s);
    if (flags & 8)
        m->width = (int64_t)(number(s) >> 1);
    if (flags & 16)
        m->rate = (double)number(s), m->has_rate = 1;
    return packbuf_media_value(m);
}

static packbuf_value deep(source *s)
{
    packbuf_value v = packbuf_int(1);
    unsigned depth = (unsigned)byte(s) * 3u;
    for (unsigned i = 0; i < depth; i++) {
        packbuf_value *up = (packbuf_value *)take(s, 1, sizeof *up);
        *up = v;
        v = packbuf_list(up, 1);
    }
    return v;
}

static packbuf_value value(source *s, unsigned depth)
{
    static const uint64_t floats[] = { 0, 0x8000000000000000u, 0x7FF8000000000000u, 0x7FF8000000000001u, 0x7FF0000000000000u, 0x3FF0000000000000u, 1 };
    packbuf_tensor *t;
    packbuf_opaque *o;
    packbuf_value v;
    uint8_t kind = byte(s);
    double f;
    switch (kind % 20) {
    case 0: return packbuf_null();
    case 1: return packbuf_missing();
    case 2: return packbuf_bool(byte(s) & 1);
    case 3: return packbuf_int((int8_t)byte(s));
    case 4: return packbuf_int((int64_t)number(s));
    case 5: return packbuf_uint(number(s));
    case 6: return packbuf_bigint(byte(s) & 1 ? "-123456789012345678901234567890" : "18446744073709551616");
    case 7:
        memcpy(&f, &floats[byte(s) % 7], 8);
        return packbuf_float(f);
    case 8: return packbuf_float((double)(int8_t)byte(s) / 4);
    case 9:
        v = text(s);
        return packbuf_bytes(v.as.text.data, v.as.text.size);
    case 10: return media(s);
    case 11:
        o = (packbuf_opaque *)take(s, 1, sizeof *o);
        v = text(s);
        o->data = v.as.text.data, o->size = v.as.text.size;
        v = text(s);
        o->serializer = v.as.text.data, o->serializer_size = v.as.text.size;
        return packbuf_opaque_value(o);
    case 12:
    case 13:
        t = (packbuf_tensor *)take(s, 1, sizeof *t);
        tensor(s, t, NULL);
        return packbuf_tensor_value(t);
    case 14:
    case 15: return depth ? list(s, depth, 0) : packbuf_int(kind);
    case 16:
    case 17: return depth ? list(s, depth, 1) : packbuf_int(kind);
    case 18: return kind > 200 ? deep(s) : text(s);
    default: return text(s);
    }
}

static packbuf_status ragged(source *s, packbuf_batch *batch, const char *name, uint64_t rows, packbuf_error *error)
{
    packbuf_ragged r;
    int64_t *offsets = (int64_t *)take(s, rows + 1, 8);
    uint64_t *shape = (uint64_t *)take(s, 8, 8), item;
    uint8_t flags = byte(s);
    memset(&r, 0, sizeof r);
    r.dtype = dtype(s);
    r.form = byte(s) % 5;
    r.item_rank = byte(s) % 3;
    r.item_shape = shape;
    r.offset_bits = flags & 1 ? 64 : 32;
    item = (r.dtype.bits * r.dtype.lanes + 7u) / 8u;
    for (unsigned d = 0; d < r.item_rank; d++) {
        shape[d] = number(s);
        item = item > POOL || shape[d] > POOL ? POOL + 1 : item * shape[d];
    }
    r.items = byte(s);
    if (flags & 2)
        r.item_stride = (int64_t)item + byte(s) % 3;
    if (item > POOL || (item + (uint64_t)(r.item_stride ? 3 : 0)) * r.items > POOL)
        r.items = item > POOL ? 0 : POOL / (item + 3);
    if (flags & 32)
        r.items = number(s) > POOL && item == 0 ? UINT64_MAX : r.items;
    r.data = s->pool;
    for (uint64_t i = 0; i <= rows; i++) {
        int64_t at = flags & 4 ? (int64_t)number(s) : (int64_t)((i ? (uint64_t)offsets[i - 1] : 0) + byte(s) % 3);
        if (r.offset_bits == 64) {
            offsets[i] = at;
        } else {
            int32_t narrow = (int32_t)at;
            memcpy((uint8_t *)offsets + 4 * i, &narrow, 4);
        }
    }
    r.offsets = offsets;
    if (flags & 8)
        r.lengths = flags & 16 ? (const void *)s->pool : take(s, rows, 8);
    if (flags & 64)
        r.device = &s->device;
    if (flags & 128)
        r.validity = s->pool;
    return packbuf_add_ragged(batch, name, &r, error);
}

static packbuf_status field(source *s, packbuf_batch *batch, uint64_t rows, packbuf_error *error)
{
    static const char *const names[] = { "a", "b", "c.d", "e[0]", "\\", "f", "", "g", "\xFF" };
    const char *name = names[byte(s) % 9];
    packbuf_value *values, v;
    packbuf_tensor *tensors, t;
    packbuf_text *texts;
    uint8_t kind = byte(s);
    if (rows > 64 && (kind % 8 == 3 || kind % 8 > 4))
        return PACKBUF_OK; /* needs an array of as many */
    switch (kind % 8) {
    case 0:
    case 1:
        tensor(s, &t, kind > 16 ? &rows : NULL);
        return packbuf_add_tensor(batch, name, &t, kind & 8 && rows < POOL ? s->pool : NULL, error);
    case 2:
        return rows > 64 ? PACKBUF_OK : ragged(s, batch, name, rows, error);
    case 3:
        tensors = (packbuf_tensor *)take(s, rows, sizeof *tensors);
        for (uint64_t i = 0; i < rows; i++) {
            tensor(s, &tensors[i], NULL);
            if (i && byte(s) & 7)
                tensors[i].dtype = tensors[0].dtype, tensors[i].form = tensors[0].form, tensors[i].strides = NULL, tensors[i].rank = tensors[i].rank < 3 ? tensors[i].rank : 0;
            for (unsigned d = 0; i && d < tensors[i].rank; d++)
                if (tensors[i].dtype.bits && !tensors[i].strides)
                    tensors[i].shape = tensors[0].shape, tensors[i].rank = tensors[0].rank, tensors[i].data = tensors[0].data, tensors[i].strides = tensors[0].strides;
            if (i && !tensors[i].rank && tensors[i].data)
                tensors[i].data = s->pool;
        }
        return packbuf_add_tensors(batch, name, tensors, error);
    case 4:
        v = value(s, 6);
        values = (packbuf_value *)take(s, 1, sizeof *values);
        *values = v;
        return kind & 8 ? packbuf_add_metadata(batch, kind & 16 ? name : NULL, names[byte(s) % 9], names[byte(s) % 9], error)
                        : packbuf_add_batch_value(batch, name, values, error);
    case 5:
        texts = (packbuf_text *)take(s, rows, sizeof *texts);
        for (uint64_t i = 0; i < rows; i++) {
            v = text(s);
            texts[i].data = v.as.text.data, texts[i].size = v.as.text.size;
        }
        return kind & 8 ? packbuf_add_strings(batch, name, texts, error) : packbuf_add_bytes(batch, name, texts, error);
    default:
        values = (packbuf_value *)take(s, rows, sizeof *values);
        for (uint64_t i = 0; i < rows; i++)
            values[i] = i && byte(s) % 2 ? values[i - 1] : kind & 32 ? list(s, 5, 1) : value(s, 5);
        return kind & 8 ? packbuf_add_values(batch, name, values, error) : packbuf_add_rows(batch, values, error);
    }
}

static void read_back(const uint8_t *bytes, uint64_t size, uint64_t rows)
{
    packbuf_arena arena;
    packbuf_error error;
    packbuf_view view;
    packbuf_value row;
    demand(packbuf_open(&view, bytes, size, PACKBUF_OPEN_EXACT | PACKBUF_OPEN_TABLES, NULL, &error) == PACKBUF_OK);
    demand(packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) == PACKBUF_OK && view.rows == rows);
    packbuf_arena_init(&arena, NULL);
    arena.limit = 1 << 22;
    for (uint64_t i = 0; i < rows && i < 8; i++) {
        packbuf_status status = packbuf_read_row(&view, i, &arena, &row, &error);
        demand(status == PACKBUF_OK || status == PACKBUF_LIMIT || status == PACKBUF_OUT_OF_MEMORY);
    }
    packbuf_arena_free(&arena);
}

/* The same bytes in a few parts, the last first. */
static void in_parts(packbuf_batch *batch, const uint8_t *bytes, uint64_t size, uint64_t room)
{
    uint8_t *other = (uint8_t *)malloc((size_t)room);
    uint32_t parts = 0;
    uint64_t written = 0;
    packbuf_error error;
    packbuf_status status = other ? packbuf_write_split(batch, 1 + (uint32_t)(size / 64 % 5), &parts, &error) : PACKBUF_OUT_OF_MEMORY;
    for (uint32_t i = parts; !status && i-- > 0;)
        status = packbuf_write_part(batch, i, other, room, &error);
    if (!status)
        status = packbuf_write_finish(batch, other, room, &written, &error);
    demand(status != PACKBUF_OK || (written == size && memcmp(other, bytes, (size_t)size) == 0));
    free(other);
}

/* All rows and batch values are equal, as far as there is memory for them. */
static void same(const uint8_t *plain, uint64_t plain_size, const uint8_t *packed, uint64_t packed_size)
{
    packbuf_arena arena;
    packbuf_error error;
    packbuf_view one, other;
    packbuf_value x, y;
    packbuf_status status;
    demand(packbuf_open(&one, plain, plain_size, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_OK);
    demand(packbuf_open(&other, packed, packed_size, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_OK && one.rows == other.rows);
    packbuf_arena_init(&arena, NULL);
    arena.limit = 1 << 23;
    status = packbuf_read_batch_values(&one, &arena, &x, &error);
    if (!status)
        status = packbuf_read_batch_values(&other, &arena, &y, &error);
    demand(status == PACKBUF_LIMIT || status == PACKBUF_OUT_OF_MEMORY || packbuf_equal(&x, &y));
    for (uint64_t i = 0; !status && i < one.rows && i < 64; i++) {
        status = packbuf_read_row(&one, i, &arena, &x, &error);
        if (!status)
            status = packbuf_read_row(&other, i, &arena, &y, &error);
        demand(status == PACKBUF_LIMIT || status == PACKBUF_OUT_OF_MEMORY || (!status && packbuf_equal(&x, &y)));
    }
    packbuf_arena_free(&arena);
}

/* The batch that the bytes describe, with a packing: its memory, the caller's, or NULL. */
static uint8_t *pack(const uint8_t *data, size_t size, unsigned packing, uint64_t *written)
{
    static const char *const paths[] = { "a", "b", "f", "g.a", "f[0]", "a.b", NULL };
    source s;
    packbuf_arena arena;
    packbuf_batch batch;
    packbuf_schema schemas[2];
    packbuf_options options = packbuf_default_options();
    packbuf_error error;
    packbuf_status status;
    uint64_t rows, needed;
    uint8_t flags, wish, *memory;
    int changed = 0, good = 0, packed = packing > PACKBUF_PACKING_NONE;
    memset(&s, 0, sizeof s);
    s.data = data;
    s.size = size;
    packbuf_arena_init(&s.arena, NULL);
    s.pool = (uint8_t *)malloc(POOL);
    demand(s.pool != NULL);
    flags = byte(&s);
    for (unsigned i = 0; i < POOL; i++)
        s.pool[i] = (uint8_t)((flags & 3) == 3 ? (i % 8 ? 0 : i / 8) : flags & 1 ? i & 1 : flags & 2 ? 0 : i * 37u);
    s.device.type = 2;
    s.device.context = &s;
    s.device.copy = flags & 4 ? NULL : copy;
    s.copies = flags & 8 ? byte(&s) : UINT32_MAX;
    packbuf_arena_init(&arena, NULL);
    arena.limit = flags & 16 ? (uint64_t)byte(&s) * 64 : 1 << 24;
    rows = number(&s);
    if (flags & 32) {
        memset(schemas, 0, sizeof schemas);
        for (unsigned i = 0; i < 2; i++) {
            schemas[i].path = paths[byte(&s) % 7];
            schemas[i].codec = (packbuf_codec)(byte(&s) % 13);
            if (byte(&s) & 1)
                schemas[i].dtype = dtype(&s);
            wish = byte(&s);
            schemas[i].flags = wish % 4u | (wish < 240 ? PACKBUF_IF_PRESENT : 0);
            schemas[i].packing = (uint8_t)(packing ? wish / 4 % 6 : 0); /* plain: all of it */
            if (schemas[i].flags & PACKBUF_KEEP_PLAIN && wish < 240)
                schemas[i].packing = 0; /* both are refused */
            packed |= schemas[i].packing > PACKBUF_PACKING_NONE;
            schemas[i].logical_type = byte(&s) & 1;
            schemas[i].parameter = byte(&s) & 1 ? "ms" : NULL;
        }
        options.schemas = schemas;
        options.schema_count = 2;
        options.mode = byte(&s) & 1 ? PACKBUF_COMPAT : PACKBUF_STRICT;
    }
    options.alignment_exponent = (uint8_t)(flags & 64 ? 12 : 6);
    options.data_checksums = flags >> 7;
    options.packing = (uint8_t)packing;
    options.link_gbits = packing ? (uint32_t)size : 0;
    status = packbuf_batch_init(&batch, rows, &arena, &options, &error);
    if (!status)
        for (unsigned i = byte(&s) % 4u; i < 4 && s.size; i++) {
            (void)field(&s, &batch, rows, &error);
            if (byte(&s) > 250)
                (void)packbuf_measure(&batch, &needed, &error);
        }
    if (!status)
        status = packbuf_measure(&batch, &needed, &error);
    memory = !status && needed < 1 << 24 ? (uint8_t *)malloc((size_t)needed) : NULL;
    if (memory) {
        if (byte(&s) > 250) {
            s.pool[byte(&s)] ^= 1; /* a caller who changes the data meanwhile: what comes out may be wrong, no more */
            changed = 1;
        }
        demand(packbuf_write(&batch, memory, needed - 1, written, &error) == PACKBUF_CAPACITY && *written == needed);
        memset(memory, 0xA5, (size_t)needed);
        status = packbuf_write(&batch, memory, needed, written, &error);
        if (!status) {
            demand(packed ? *written <= needed : *written == needed);
            if (!changed)
                read_back(memory, *written, rows);
            if (!changed && packed)
                in_parts(&batch, memory, *written, needed);
            good = !changed;
        }
    }
    packbuf_arena_free(&arena);
    packbuf_arena_free(&s.arena);
    free(s.pool);
    if (good)
        return memory;
    free(memory);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned packing = (unsigned)(size % 6);
    uint64_t plain_size = 0, packed_size = 0;
    uint8_t *plain = pack(data, size, PACKBUF_PACKING_DEFAULT, &plain_size), *packed = packing ? pack(data, size, packing, &packed_size) : NULL;
    if (plain && packed)
        same(plain, plain_size, packed, packed_size);
    free(plain);
    free(packed);
    return 0;
}
