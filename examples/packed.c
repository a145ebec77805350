/* A packed batch: token ids in blocks, values plain for those who want a pointer to them. How much it takes, some of
 * its rows, and how blocks are stored. */
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>
#include <string.h>

enum { ROWS = 64, WIDTH = 1024, STEP = 16, MINE = ROWS / STEP };

static int64_t tokens[ROWS][WIDTH];
static float values[ROWS][WIDTH];

static int fail(const packbuf_error *error) {
  char line[512];
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

/* Rows of 200 to 704 tokens and a value for each, padded with zeros. */
static void fill(void) {
  uint32_t random = 1;
  for (int r = 0; r < ROWS; r++)
    for (int i = 0; i < 200 + 8 * r; i++) {
      random = random * 1664525u + 1013904223u;
      tokens[r][i] = random >> 15;
      values[r][i] = (float)(random >> 8) / (1 << 24);
    }
}

/* The batch, in the arena; NULL: *error says why not. */
static void *pack(packbuf_arena *arena, uint64_t *size, packbuf_error *error) {
  uint64_t shape[2] = {ROWS, WIDTH}, room;
  packbuf_tensor a = {tokens, {PACKBUF_DTYPE_INT, 64, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
  packbuf_tensor b = {values, {PACKBUF_DTYPE_FLOAT, 32, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
  packbuf_schema plain;
  packbuf_options options = packbuf_default_options();
  packbuf_batch batch;
  void *packed;
  memset(&plain, 0, sizeof plain);
  plain.path = "values";
  plain.flags = PACKBUF_KEEP_PLAIN;
  options.packing = PACKBUF_PACKING_BALANCED;
  options.schemas = &plain;
  options.schema_count = 1;
  if (packbuf_batch_init(&batch, ROWS, arena, &options, error) ||
      packbuf_add_tensor(&batch, "tokens", &a, NULL, error) || packbuf_add_tensor(&batch, "values", &b, NULL, error) ||
      packbuf_measure(&batch, &room, error))
    return NULL;
  /* room for what it takes plain: how small it gets writing tells */
  packed = packbuf_arena_alloc(arena, (size_t)room, 64);
  if (packbuf_write(&batch, packed, packed ? room : 0, size, error)) return NULL;
  printf("%llu bytes of at most %llu\n", (unsigned long long)*size, (unsigned long long)room);
  return packed;
}

/* How the blocks of a field's data are stored, as `packbuf inspect` has it. */
static int show_blocks(const packbuf_view *view, const packbuf_node *node, packbuf_error *error) {
  unsigned modes[PACKBUF_BLOCK_DICTIONARY + 1] = {0}, filled = 0;
  packbuf_buffer data;
  packbuf_block block;
  if (packbuf_get_buffer(view, node, PACKBUF_ROLE_DATA, 0, &data, error)) return 0;
  for (uint64_t i = 0; i < packbuf_block_count(&data); i++) {
    if (packbuf_get_block(&data, i, &block, error)) return 0;
    modes[block.mode]++;
    filled += block.filled;
  }
  printf("tokens: %llu blocks of 8 KiB,", (unsigned long long)packbuf_block_count(&data));
  for (unsigned mode = 0; mode <= PACKBUF_BLOCK_DICTIONARY; mode++)
    if (modes[mode]) printf(" %u %s,", modes[mode], packbuf_block_mode_name(mode));
  printf(" %u of them without their padding: %.1f times smaller\n", filled,
         (double)sizeof tokens / (double)data.length);
  return 1;
}

int main(void) {
  static int64_t mine[MINE][WIDTH];
  const packbuf_row_selection every =
      packbuf_rows_range(PACKBUF_ROWS_BEGIN, PACKBUF_ROWS_END, STEP); /* rows 0, 16, 32, 48 */
  packbuf_arena arena;
  packbuf_error error;
  packbuf_view view;
  packbuf_node ids, value;
  packbuf_selection rows;
  packbuf_selected_tensor in_place;
  packbuf_select_into into;
  const float *second;
  char line[512];
  uint64_t size;
  void *packed;
  fill();
  packbuf_arena_init(&arena, NULL);
  packed = pack(&arena, &size, &error);
  if (!packed || packbuf_open(&view, packed, size, PACKBUF_OPEN_EXACT, NULL, &error) ||
      packbuf_find(&view, 0, "tokens", &ids, &error) || packbuf_find(&view, 0, "values", &value, &error) ||
      packbuf_select(&view, 0, NULL, 0, every, &arena, &rows, &error) || !show_blocks(&view, &ids, &error))
    return fail(&error);

  if (packbuf_select_tensor(&rows, value.index, &in_place, &error))
    return fail(&error); /* kept plain: a pointer, whatever the data */
  second = (const float *)(const void *)((const char *)in_place.tensor.data + in_place.strides[0]);
  if (memcmp(second, values[STEP], sizeof values[STEP]) != 0) return 1;
  printf("values: row %d begins with %g, read in place\n", STEP, (double)second[0]);

  if (packbuf_select_tensor(&rows, ids.index, &in_place, &error) != PACKBUF_NOT_STORED)
    return 1; /* packed: no pointer */
  packbuf_error_format(&error, line, sizeof line);
  printf("%s\n", line);
  memset(&into, 0, sizeof into);
  into.data = mine;
  into.data_capacity = sizeof mine;
  if (packbuf_select_copy(&rows, ids.index, &into, NULL, &error))
    return fail(&error); /* unpacks the blocks of these rows alone */
  for (int r = 0; r < MINE; r++)
    if (memcmp(mine[r], tokens[r * STEP], sizeof mine[r]) != 0) return 1;
  printf("tokens: %d rows copied out, every bit as it was\n", MINE);
  packbuf_arena_free(&arena);
  return 0;
}
