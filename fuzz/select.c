/* Fuzz target: any bytes as a packed buffer, its head's checksum put right, and a selection that the same bytes choose. It is sized, copied out, read as
 * values and in place; its ranges are fetched into memory of their own, and what the partial view gives is what the whole one gave.
 * May use: packbuf.h and its insides, tests/selecting.h, tests/sealing.h. Must not know: how the vectors were made. */
#include "packbuf.h"
#include "tests/sealing.h"
#include "tests/selecting.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

enum { MOST = 1 << 14 };

static void demand(int holds) {
  if (!holds) abort();
}

static volatile unsigned touched;

static void touch(const void *bytes, uint64_t size) {
  for (uint64_t i = 0; i < size; i += size > 4096 ? size / 4096 : 1) touched += ((const uint8_t *)bytes)[i];
  if (size) touched += ((const uint8_t *)bytes)[size - 1];
}

static uint64_t seed_of(const uint8_t *data, size_t size) {
  uint64_t seed = size;
  for (size_t i = 0; i < size && i < 64; i++) seed = seed * 31 + data[size - 1 - i];
  return seed;
}

static void in_place(const packbuf_selection *s, uint32_t node) {
  packbuf_selected_tensor tensor;
  packbuf_ragged ragged;
  if (packbuf_select_tensor(s, node, &tensor, NULL) == PACKBUF_OK) {
    uint64_t each = bytes_each(tensor.tensor.dtype);
    for (unsigned d = 1; d < tensor.tensor.rank; d++) each *= tensor.shape[d];
    for (uint64_t i = 0; each && i < tensor.shape[0] && i < 64; i++) touch((const uint8_t *)tensor.tensor.data + (int64_t)i * tensor.strides[0], each);
  }
  if (packbuf_select_ragged(s, node, &ragged, NULL) == PACKBUF_OK) {
    touch(ragged.data, ragged.items * bytes_each(ragged.dtype));
    touch(ragged.offsets, 8);
  }
}

/* Offsets that were written ascend and end where the data end, whatever the input says. */
static void offsets_hold(const packbuf_selection *s, uint32_t node, const selecting_column *c) {
  packbuf_node n;
  uint64_t before = 0, count = c->size.rows;
  if (packbuf_get_node(s->view, node, &n, NULL) || n.kind != PACKBUF_LEAF || n.codec < PACKBUF_CODEC_RAGGED_TENSOR) return;
  if (n.codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED) count = c->size.items;
  for (uint64_t i = 0; i <= count; i++) {
    const uint64_t offset = selecting_offset(c->into.offsets, 64, i);
    demand(offset >= before && (i != 0 || offset == 0));
    before = offset;
  }
  demand(before == c->size.elements);
}

static void partial(const uint8_t *data, const packbuf_selection *s, const char *const *patterns, size_t count, packbuf_row_selection rows, packbuf_arena *arena, int verified) {
  packbuf_range *ranges;
  uint64_t range_count, end = s->view->head_length + s->view->index_length;
  packbuf_error error;
  selecting_partial p;
  packbuf_selection again;
  const packbuf_status status = packbuf_select_ranges(s, 1, (s->rows & 7) * 16, s->rows & 8 ? PACKBUF_RANGES_CHUNKS : 0, arena, &ranges, &range_count, &error);
  if (status != PACKBUF_OK) return;
  for (uint64_t i = 0; i < range_count; i++) {
    demand(ranges[i].length && ranges[i].offset >= end && ranges[i].length <= s->view->total_length - ranges[i].offset);
    end = ranges[i].offset + ranges[i].length;
  }
  if (selecting_fetch(&p, data, s->view, ranges, range_count, &error) == PACKBUF_OK && packbuf_select(&p.view, 0, patterns, count, rows, arena, &again, &error) == PACKBUF_OK) {
    for (uint32_t i = 0; i < s->node_count && i < 64; i++) {
      selecting_column a, b;
      if (s->flags[s->nodes[i]] != 2) continue;
      for (int all = 0; all < 2; all++) {
        selecting_copy(s, s->nodes[i], all, 64, MOST, &a, &error);
        selecting_copy(&again, s->nodes[i], all, 64, MOST, &b, &error);
        if (verified) demand(selecting_same(&a, &b) == NULL);
        else if (all == 0 && a.status == PACKBUF_OK) demand(b.status != PACKBUF_NOT_FETCHED && (b.status != PACKBUF_OK || selecting_same(&a, &b) == NULL));
        selecting_column_free(&a), selecting_column_free(&b);
      }
    }
    if (s->rows <= 64) {
      packbuf_value x[64], y[64];
      const packbuf_status one = packbuf_select_values(s, 0, s->rows, arena, x, &error), other = packbuf_select_values(&again, 0, s->rows, arena, y, &error);
      if (verified && one != PACKBUF_OUT_OF_MEMORY && other != PACKBUF_OUT_OF_MEMORY) demand(one == other);
      for (uint64_t i = 0; verified && one == PACKBUF_OK && other == PACKBUF_OK && i < s->rows; i++) demand(packbuf_equal(&x[i], &y[i]));
    }
    (void)packbuf_verify_fetched(&p.view, NULL, &error);
  }
  selecting_fetch_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  packbuf_limits limits = packbuf_default_limits();
  uint8_t *data = (uint8_t *)malloc(size ? size : 1);
  uint64_t seed = seed_of(input, size);
  packbuf_arena arena;
  packbuf_error error;
  packbuf_view view;
  limits.decoded_bytes = 1 << 20;
  limits.rows = UINT64_C(1) << 48;
  if (!data) return 0;
  if (size) memcpy(data, input, size);
  seal_head(data, size);
  packbuf_arena_init(&arena, NULL);
  arena.limit = 1 << 22;
  if (packbuf_open(&view, data, size, 0, &limits, &error) == PACKBUF_OK && view.node_count < 4096) {
    const int verified = packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error) == PACKBUF_OK;
    char path[256];
    const char *patterns[1];
    const size_t count = view.node_count != 0 && seed % 3;
    packbuf_selection s;
    selecting_rows rows;
    patterns[0] = seed % 3 == 1 ? "**" : path;
    if (view.node_count) (void)packbuf_node_path(&view, (uint32_t)(seed % view.node_count), path, sizeof path);
    selecting_rows_make(&rows, view.rows, 64, &seed);
    if (packbuf_select(&view, 0, patterns, count, rows.rows, &arena, &s, &error) == PACKBUF_OK) {
      demand(s.rows == rows.count || view.rows > 64);
      for (uint32_t i = 0; i < s.node_count && i < 64; i++) {
        selecting_column c;
        selecting_copy(&s, s.nodes[i], (int)(seed & 1), 64, MOST, &c, &error);
        if (c.status == PACKBUF_OK) offsets_hold(&s, s.nodes[i], &c);
        selecting_column_free(&c);
        in_place(&s, s.nodes[i]);
      }
      partial(data, &s, patterns, count, rows.rows, &arena, verified);
    }
    selecting_rows_free(&rows);
  }
  packbuf_arena_free(&arena);
  free(data);
  return 0;
}

/* Half of the mutations set an aligned number of head or index to one that matters. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned random) {
  static const uint64_t numbers[] = {0, 1, 2, 3, 7, 8, 9, 64, 65, 0xFFFFFFFF, UINT64_MAX, UINT64_C(1) << 48, UINT64_C(1) << 62, UINT64_MAX - 1};
  uint64_t seed = random;
  if (size >= 256 && selecting_below(&seed, 2)) {
    const uint64_t at = selecting_below(&seed, size / 8 - 16) * 8 + 64, number = numbers[selecting_below(&seed, sizeof numbers / sizeof *numbers)];
    const unsigned width = 1u << selecting_below(&seed, 4);
    uint8_t bytes[8];
    bytes_store64(bytes, number);
    memcpy(data + at, bytes, width);
  } else {
#ifdef FUZZ_TARGET
    (void)max_size;
#else
    size = LLVMFuzzerMutate(data, size, max_size);
#endif
  }
  return size;
}
