/* Reading without a copy: a typed pointer to a dense field, the extents of a ragged one, text as it lies there. */
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>
#include <stdlib.h>

static packbuf_error error;

static void check(packbuf_status status) {
  char line[512];
  if (!status) return;
  packbuf_error_format(&error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  exit(1);
}

/* Stands for what another process sent. */
static void *make(packbuf_arena *arena, uint64_t *size) {
  static const int64_t ids[5] = {1, 2, 3, 40, 50};
  static const int32_t offsets[4] = {0, 3, 3, 5};
  static const float scores[6] = {0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f};
  static const packbuf_text texts[3] = {{"first", 5}, {"", 0}, {"third row", 9}};
  uint64_t shape[2] = {3, 2};
  packbuf_tensor dense = {scores, {PACKBUF_DTYPE_FLOAT, 32, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
  packbuf_ragged ragged = {0};
  packbuf_batch batch;
  void *packed;
  ragged.data = ids;
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  ragged.items = 5;
  ragged.offsets = offsets;
  ragged.offset_bits = 32;
  check(packbuf_batch_init(&batch, 3, arena, NULL, &error));
  check(packbuf_add_tensor(&batch, "scores", &dense, NULL, &error));
  check(packbuf_add_ragged(&batch, "ids", &ragged, &error));
  check(packbuf_add_strings(&batch, "text", texts, &error));
  check(packbuf_pack(&batch, &packed, size, &error));
  return packed;
}

int main(void) {
  packbuf_arena arena;
  packbuf_view view;
  packbuf_node node;
  packbuf_buffer buffer;
  packbuf_column column;
  const void *elements, *bytes;
  uint64_t size, first, count;
  void *packed;

  packbuf_arena_init(&arena, NULL);
  packed = make(&arena, &size);
  check(packbuf_open(&view, packed, size, 0, NULL, &error));

  check(packbuf_find(&view, 0, "scores", &node, &error));
  check(packbuf_get_buffer(&view, &node, PACKBUF_ROLE_DATA, 0, &buffer, &error));
  check(packbuf_get_typed(&buffer, packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32), &elements, &error));
  printf("scores[2][1] = %g, at byte %llu of the packed buffer\n", (double)((const float *)elements)[5],
         (unsigned long long)buffer.offset);

  check(packbuf_find(&view, 0, "ids", &node, &error));
  check(packbuf_open_column(&view, node.index, &column, &error));
  check(packbuf_get_typed(&column.data, node.dtype, &elements, &error));
  for (uint64_t row = 0; row < view.rows; row++) {
    check(packbuf_cell_extent(&column, row, &first, &count, &error));
    printf("ids[%llu] has %llu tokens%s", (unsigned long long)row, (unsigned long long)count,
           count ? ", first " : "\n");
    if (count) printf("%lld\n", (long long)((const int64_t *)elements)[first]);
  }

  check(packbuf_find(&view, 0, "text", &node, &error));
  check(packbuf_open_column(&view, node.index, &column, &error));
  check(packbuf_cell_bytes(&column, 2, &bytes, &size, &error));
  printf("text[2] = %.*s\n", (int)size, (const char *)bytes);
  packbuf_arena_free(&arena);
  return 0;
}
