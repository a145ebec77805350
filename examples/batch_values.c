/* What belongs to the batch as a whole: batch values (typed, one row) and metadata (string pairs). */
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>

static int fail(const packbuf_error *error) {
  char line[512];
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

int main(void) {
  static const float rewards[4] = {1, 0, 0, 1};
  uint64_t shape[1] = {4}, size;
  packbuf_tensor reward = {rewards, {PACKBUF_DTYPE_FLOAT, 32, 1}, 1, PACKBUF_FORM_NATURAL, shape, NULL, NULL};
  packbuf_entry entries[2];
  packbuf_value meta_info, version, back;
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_view view;
  packbuf_metadata metadata;
  void *packed;
  char text[256];
  size_t length;

  entries[0].key = packbuf_string("temperature");
  entries[0].value = packbuf_float(0.7);
  entries[1].key = packbuf_string("validate");
  entries[1].value = packbuf_bool(0);
  meta_info = packbuf_dict(entries, 2);
  version = packbuf_int(41);

  packbuf_arena_init(&arena, NULL);
  if (packbuf_batch_init(&batch, 4, &arena, NULL, &error) ||
      packbuf_add_tensor(&batch, "reward", &reward, NULL, &error) ||
      packbuf_add_batch_value(&batch, "policy_version", &version, &error) ||
      packbuf_add_batch_value(&batch, "meta_info", &meta_info, &error) ||
      packbuf_add_metadata(&batch, NULL, "tokenizer", "qwen", &error) ||
      packbuf_add_metadata(&batch, "reward", "unit", "correctness", &error) ||
      packbuf_pack(&batch, &packed, &size, &error) || packbuf_open(&view, packed, size, 0, NULL, &error) ||
      packbuf_read_batch_values(&view, &arena, &back, &error) ||
      packbuf_json_write(&back, text, sizeof text, &length, &error))
    return fail(&error);
  printf("%.*s\n", (int)length, text);
  for (uint32_t i = 0; i < view.metadata_count; i++) {
    if (packbuf_get_metadata(&view, i, &metadata, &error)) return fail(&error);
    printf("%s: %.*s = %.*s\n", metadata.node == PACKBUF_NO_NODE ? "batch" : "field", (int)metadata.key.size,
           metadata.key.data, (int)metadata.text.size, metadata.text.data);
  }
  packbuf_arena_free(&arena);
  return 0;
}
