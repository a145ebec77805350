/* A batch in fragments: two rollout workers add rows, a reward model adds a field later, and nothing is written twice.
 * A consumer refuses what is not of the schema it was built for, reads all as one, and makes one packed buffer of it.
 */
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

/* Stands for a store: a packed buffer under a key. */
typedef struct object {
  const char *key;
  void *data;
  uint64_t size;
} object;

/* The rows of all fragments stand in one order, which this token names (128 random bits, drawn by who makes the rows).
 */
static packbuf_options options_of_step(void) {
  packbuf_options options = packbuf_default_options();
  for (int i = 0; i < 16; i++) options.row_order_token[i] = (uint8_t)(17 * i + 1);
  return options;
}

static object rollout(packbuf_arena *arena, const char *key, const int64_t *tokens, const int32_t *offsets,
                      const packbuf_text *texts, uint64_t rows) {
  const packbuf_options options = options_of_step();
  packbuf_ragged ragged = {0};
  packbuf_batch batch;
  object made = {0};
  ragged.data = tokens;
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  ragged.items = (uint64_t)offsets[rows];
  ragged.offsets = offsets;
  ragged.offset_bits = 32;
  check(packbuf_batch_init(&batch, rows, arena, &options, &error));
  check(packbuf_add_ragged(&batch, "tokens", &ragged, &error));
  check(packbuf_add_strings(&batch, "text", texts, &error));
  made.key = key;
  check(packbuf_pack(&batch, &made.data, &made.size, &error));
  return made;
}

static object rewards(packbuf_arena *arena, const char *key, const float *values, uint64_t rows) {
  const packbuf_options options = options_of_step();
  packbuf_tensor dense = {values, {PACKBUF_DTYPE_FLOAT, 32, 1}, 1, PACKBUF_FORM_NATURAL, &rows, NULL, NULL};
  packbuf_batch batch;
  object made = {0};
  check(packbuf_batch_init(&batch, rows, arena, &options, &error));
  check(packbuf_add_tensor(&batch, "reward", &dense, NULL, &error));
  made.key = key;
  check(packbuf_pack(&batch, &made.data, &made.size, &error));
  return made;
}

/* The next generation of the manifest: what `before` lists, and one fragment more. */
static object append(packbuf_arena *arena, const object *before, const object *fragment, packbuf_appends appends,
                     uint64_t first_row) {
  packbuf_fragment listed;
  packbuf_view view, old;
  packbuf_batch batch;
  object made = {0};
  if (before) check(packbuf_open(&old, before->data, before->size, PACKBUF_OPEN_EXACT, NULL, &error));
  check(packbuf_open(&view, fragment->data, fragment->size, PACKBUF_OPEN_EXACT, NULL, &error));
  check(packbuf_fragment_of(&view, fragment->key, appends, first_row, &listed, &error));
  check(packbuf_manifest_init(&batch, before ? &old : NULL, &listed, 1, arena, NULL, &error));
  made.key = "manifest";
  check(packbuf_pack(&batch, &made.data, &made.size, &error));
  return made;
}

static void consume(packbuf_arena *arena, const object *manifest, const object *store, const char *schema,
                    size_t schema_size) {
  const packbuf_fragment *listed;
  packbuf_view view, views[8];
  packbuf_join join;
  packbuf_batch batch;
  packbuf_value row;
  uint64_t count, rows, size;
  void *whole;
  check(packbuf_open(&view, manifest->data, manifest->size, PACKBUF_OPEN_EXACT, NULL, &error));
  check(packbuf_manifest_read(&view, arena, &listed, &count, &rows, &error));
  for (uint64_t i = 0; i < count && i < 8; i++) {
    /* here every key is at hand; a store would be asked for listed[i].key */
    check(packbuf_open(&views[i], store[i].data, store[i].size, PACKBUF_OPEN_EXACT, NULL, &error));
    check(packbuf_verify(&views[i], PACKBUF_LEVEL_FULL, &error));
    if (listed[i].appends == PACKBUF_APPENDS_ROWS)
      check(packbuf_expect_schema(&views[i], schema, schema_size, NULL, &error));
  }
  check(packbuf_join_init(&join, listed, views, count, 0, arena, &error));
  printf("%llu rows of %u fields in %llu fragments\n", (unsigned long long)join.rows, (unsigned)join.field_count,
         (unsigned long long)count);
  for (uint64_t i = 0; i < join.rows; i++) {
    check(packbuf_join_read_rows(&join, i, 1, arena, &row, &error));
    printf("row %llu: %llu tokens, \"%.*s\", reward %g\n", (unsigned long long)i,
           (unsigned long long)packbuf_dict_get(&row, "tokens")->as.tensor->shape[0],
           (int)packbuf_dict_get(&row, "text")->as.text.size, packbuf_dict_get(&row, "text")->as.text.data,
           packbuf_dict_get(&row, "reward")->as.f);
  }
  check(packbuf_join_batch(&join, arena, NULL, &batch, &error));
  check(packbuf_pack(&batch, &whole, &size, &error));
  printf("as one packed buffer: %llu bytes\n", (unsigned long long)size);
}

int main(void) {
  static const int64_t tokens[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  static const int32_t offsets[3] = {0, 4, 6};
  static const packbuf_text first[2] = {{"one", 3}, {"two", 3}}, second[1] = {{"three", 5}};
  static const float values[3] = {1.0f, 0.0f, 0.5f};
  packbuf_arena arena;
  packbuf_view view;
  object store[3], manifest;
  char schema[512];
  size_t schema_size;

  packbuf_arena_init(&arena, NULL);
  store[0] = rollout(&arena, "step7/worker0", tokens, offsets, first, 2);
  store[1] = rollout(&arena, "step7/worker1", tokens + 4, offsets, second, 1);
  store[2] = rewards(&arena, "step7/reward", values, 3);
  manifest = append(&arena, NULL, &store[0], PACKBUF_APPENDS_ROWS, 0);
  manifest = append(&arena, &manifest, &store[1], PACKBUF_APPENDS_ROWS, 2);
  manifest = append(&arena, &manifest, &store[2], PACKBUF_APPENDS_FIELDS, 0);

  /* what step 0 looked like */
  check(packbuf_open(&view, store[0].data, store[0].size, 0, NULL, &error));
  check(packbuf_schema_text(&view, schema, sizeof schema, &schema_size, &error));
  printf("%.*s", (int)schema_size, schema);
  consume(&arena, &manifest, store, schema, schema_size);

  /* a worker that is of another version is refused, and it is said why */
  check(packbuf_open(&view, store[2].data, store[2].size, 0, NULL, &error));
  if (packbuf_expect_schema(&view, schema, schema_size, NULL, &error) != PACKBUF_SCHEMA_MISMATCH) return 1;
  printf("refused: %s: %s\n", error.path, error.message);
  packbuf_arena_free(&arena);
  return 0;
}
