/* Codec, dtype and flags by path instead of by inference, and what a refusal looks like. */
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>
#include <string.h>

static int fail(const packbuf_error *error) {
  char line[512];
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

int main(void) {
  packbuf_schema schemas[3];
  packbuf_options options = packbuf_default_options();
  packbuf_entry entries[3][2];
  packbuf_value meta[3], rewards[3];
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_view view;
  packbuf_node node;
  packbuf_status status;
  void *packed;
  uint64_t size;

  memset(schemas, 0, sizeof schemas);
  schemas[0].path = "meta.step"; /* inference would take int64 */
  schemas[0].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 16);
  schemas[1].path = "meta.tags"; /* kept whole, whatever the rows hold */
  schemas[1].codec = PACKBUF_CODEC_JSON_RAGGED;
  schemas[2].path = "reward";
  schemas[2].flags = PACKBUF_REFUSE_NULL;
  options.schemas = schemas;
  options.schema_count = 3;

  for (int i = 0; i < 3; i++) {
    entries[i][0].key = packbuf_string("step");
    entries[i][0].value = packbuf_int(100 + i);
    entries[i][1].key = packbuf_string("tags");
    entries[i][1].value = packbuf_string("math");
    meta[i] = packbuf_dict(entries[i], 2);
    rewards[i] = packbuf_float(0.5);
  }
  packbuf_arena_init(&arena, NULL);
  if (packbuf_batch_init(&batch, 3, &arena, &options, &error) || packbuf_add_values(&batch, "meta", meta, &error) ||
      packbuf_add_values(&batch, "reward", rewards, &error) || packbuf_pack(&batch, &packed, &size, &error) ||
      packbuf_open(&view, packed, size, 0, NULL, &error) || packbuf_find(&view, 0, "meta.step", &node, &error))
    return fail(&error);
  printf("meta.step is %s\n", packbuf_dtype_name(node.dtype));
  if (packbuf_find(&view, 0, "meta.tags", &node, &error)) return fail(&error);
  printf("meta.tags is %s\n", packbuf_codec_name((packbuf_codec)node.codec));

  rewards[1] = packbuf_null(); /* and now one that the schema forbids */
  if (packbuf_batch_init(&batch, 3, &arena, &options, &error) || packbuf_add_values(&batch, "reward", rewards, &error))
    return fail(&error);
  status = packbuf_measure(&batch, &size, &error);
  printf("refused with %s: field %s, row %llu\n", packbuf_status_name(status), error.path,
         (unsigned long long)error.row);
  packbuf_arena_free(&arena);
  return status == PACKBUF_NOT_NULLABLE && error.row == 1 ? 0 : 1;
}
