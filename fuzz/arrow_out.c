/* Fuzz target: any bytes as a packed buffer that is given to Arrow and DLPack. What is given is well-formed and its memory there, whatever the bytes say, and
 * comes back as a batch; what is refused holds nothing. The checksums are made right, so that more than the head is looked at. */
#include "../packbuf.h"
#include "tests/exchange.h"
#include "tests/sealing.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds)
{
    if (!holds) abort();
}

static void back_in(const struct ArrowSchema *schema, const struct ArrowArray *array)
{
    packbuf_arena arena;
    packbuf_batch batch;
    uint64_t needed;
    packbuf_arena_init(&arena, NULL);
    arena.limit = 64 << 20;
    if (!packbuf_batch_init(&batch, (uint64_t)array->length, &arena, NULL, NULL) && !packbuf_arrow_import(&batch, schema, &array, 1, NULL))
        (void)packbuf_measure(&batch, &needed, NULL);
    packbuf_arena_free(&arena);
}

static void all_of(const packbuf_selection *selection, unsigned flags)
{
    counting count = { 0, 0 };
    packbuf_export what = exporting(selection, PACKBUF_NO_NODE, &count);
    struct ArrowSchema schema;
    struct ArrowArray array;
    what.flags = flags;
    if (packbuf_arrow_schema(&what, &schema, NULL) == PACKBUF_OK) {
        if (packbuf_arrow_array(&what, &array, NULL) == PACKBUF_OK) {
            demand(exchange_walk(&schema, &array) == NULL);
            back_in(&schema, &array);
            array.release(&array);
        }
        schema.release(&schema);
    }
    demand(count.taken == count.released);
}

static void each_of(const packbuf_selection *selection)
{
    counting count = { 0, 0 };
    for (uint32_t node = 0; node < selection->view->node_count && node < 64; node++) {
        packbuf_export what = exporting(selection, node, &count);
        DLManagedTensorVersioned *tensor;
        uint64_t bytes;
        if (packbuf_dlpack(&what, &tensor, NULL) != PACKBUF_OK) continue;
        bytes = tensor->dl_tensor.dtype.bits / 8;
        for (int32_t d = 0; d < tensor->dl_tensor.ndim; d++) bytes *= (uint64_t)tensor->dl_tensor.shape[d];
        if (tensor->dl_tensor.strides[0] > 0) exchange_touch(tensor->dl_tensor.data, bytes);
        tensor->deleter(tensor);
    }
    demand(count.taken == count.released);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    packbuf_arena arena;
    packbuf_limits limits = packbuf_default_limits();
    packbuf_view view;
    packbuf_selection selection;
    uint8_t *copy = (uint8_t *)malloc(size + 1);
    memcpy(copy, data, size);
    seal_all(copy, size);
    limits.decoded_bytes = 1 << 22;
    limits.rows = 1 << 20;
    packbuf_arena_init(&arena, NULL);
    arena.limit = 16 << 20;
    if (!packbuf_open(&view, copy, size, 0, &limits, NULL)) {
        if (!packbuf_select(&view, 0, NULL, 0, packbuf_rows_all(), &arena, &selection, NULL)) {
            all_of(&selection, 0);
            each_of(&selection);
        }
        if (!packbuf_select(&view, 0, NULL, 0, packbuf_rows_range(1, 13, 1), &arena, &selection, NULL)) all_of(&selection, PACKBUF_EXPORT_COPY);
    }
    packbuf_arena_free(&arena);
    free(copy);
    return 0;
}
