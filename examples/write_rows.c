/* A rollout batch into one buffer, and every row back: a dense field, a ragged one, text, and dynamic values. */
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>
#include <stdlib.h>

static void check(packbuf_status status, const packbuf_error *error) {
  char line[512];
  if (!status) return;
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  exit(1);
}

/* Three responses: rewards, token ids of 4 + 0 + 2 tokens, texts, and what a tool said. */
static const float rewards[3] = {1.0f, 0.0f, 0.5f};
static const int64_t tokens[6] = {9707, 1879, 0, 151645, 40, 151645};
static const int64_t offsets[4] = {0, 4, 4, 6};
static const packbuf_text texts[3] = {{"Hello world!", 12}, {NULL, 0}, {"I", 1}}; /* the second row has none: null */

static void add_fields(packbuf_batch *batch, const packbuf_value *calls) {
  uint64_t shape[1] = {3};
  packbuf_tensor reward = {rewards, {PACKBUF_DTYPE_FLOAT, 32, 1}, 1, PACKBUF_FORM_NATURAL, shape, NULL, NULL};
  packbuf_ragged ids = {0};
  packbuf_error error;
  ids.data = tokens;
  ids.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  ids.items = 6;
  ids.offsets = offsets;
  ids.offset_bits = 64;
  check(packbuf_add_tensor(batch, "reward", &reward, NULL, &error), &error);
  check(packbuf_add_ragged(batch, "tokens", &ids, &error), &error);
  check(packbuf_add_strings(batch, "text", texts, &error), &error);
  check(packbuf_add_values(batch, "call", calls, &error), &error);
}

int main(void) {
  packbuf_entry call[2];
  packbuf_value calls[3], row;
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_view view;
  packbuf_node node;
  void *packed;
  uint64_t size;
  char text[512];
  size_t length;

  call[0].key = packbuf_string("tool");
  call[0].value = packbuf_string("calculator");
  call[1].key = packbuf_string("seconds");
  call[1].value = packbuf_float(0.25);
  calls[0] = packbuf_dict(call, 2);
  calls[1] = packbuf_null();
  calls[2] = packbuf_missing(); /* this row does not have the field at all */

  packbuf_arena_init(&arena, NULL);
  check(packbuf_batch_init(&batch, 3, &arena, NULL, &error), &error);
  add_fields(&batch, calls);
  check(packbuf_pack(&batch, &packed, &size, &error), &error);
  printf("%u fields x 3 rows in %llu bytes\n", 4u, (unsigned long long)size);

  check(packbuf_open(&view, packed, size, PACKBUF_OPEN_EXACT, NULL, &error), &error);
  check(packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error), &error);
  check(packbuf_find(&view, 0, "call", &node, &error), &error);
  for (uint64_t i = 0; i < view.rows; i++) {
    check(packbuf_read_cell(&view, node.index, i, &arena, &row, &error), &error);
    if (row.kind == PACKBUF_MISSING) {
      printf("row %llu has no call\n", (unsigned long long)i);
      continue;
    }
    check(packbuf_json_write(&row, text, sizeof text, &length, &error), &error);
    printf("row %llu: call %.*s\n", (unsigned long long)i, (int)length, text);
  }
  packbuf_arena_free(&arena);
  return 0;
}
