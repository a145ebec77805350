/* A learner wants 3 fields of 20 and an eighth of the rows, out of a file that it reads with two reads: head and index,
 * which say where the rest lies, then exactly the bytes of the selection. Ranged reads of an object store go the same
 * way. POSIX. */
#define _POSIX_C_SOURCE 200809L
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROWS = 512, WIDTH = 256, FIELDS = 20, RANK = 3, LEARNERS = 8 };

static int fail(const packbuf_error *error) {
  char line[512];
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

static int32_t element(int field, int row, int i) { return (field * ROWS + row) * WIDTH + i; }

/* A file to read: 20 fields of 512 x 256. */
static int make(const char *path, packbuf_error *error) {
  static int32_t numbers[FIELDS][ROWS][WIDTH];
  static char names[FIELDS][16];
  uint64_t shape[2] = {ROWS, WIDTH}, size;
  packbuf_arena arena;
  packbuf_batch batch;
  void *packed;
  FILE *file;
  int good = 1;
  packbuf_arena_init(&arena, NULL);
  if (packbuf_batch_init(&batch, ROWS, &arena, NULL, error)) return 0;
  for (int f = 0; f < FIELDS; f++) {
    packbuf_tensor tensor = {numbers[f], {PACKBUF_DTYPE_INT, 32, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
    for (int r = 0; r < ROWS; r++)
      for (int i = 0; i < WIDTH; i++) numbers[f][r][i] = element(f, r, i);
    snprintf(names[f], sizeof names[f], "field_%d", f);
    good = good && packbuf_add_tensor(&batch, names[f], &tensor, NULL, error) == PACKBUF_OK;
  }
  if (!good || packbuf_pack(&batch, &packed, &size, error)) return 0;
  file = fopen(path, "wb");
  good = file && fwrite(packed, 1, (size_t)size, file) == size;
  if (file && fclose(file) != 0) good = 0;
  packbuf_arena_free(&arena);
  return good;
}

int main(void) {
  static const char *const fields[] = {"field_3", "field_7", "field_11"};
  const packbuf_row_selection rows = packbuf_rows_range(RANK, PACKBUF_ROWS_END, LEARNERS); /* rows 3, 11, 19, ... */
  uint8_t *start = NULL, *data;
  uint64_t head_and_index, total, count, bytes = 0;
  packbuf_error error;
  packbuf_arena arena;
  packbuf_view view;
  packbuf_selection selection;
  packbuf_range *ranges;
  packbuf_fetched *fetched;
  int file;
  packbuf_arena_init(&arena, NULL);
  if (!make("batch.pbuf", &error)) return 1;
  file = open("batch.pbuf", O_RDONLY);
  start = (uint8_t *)malloc(1 << 16);
  /* Read 1: a reference that names the object carries the length of head and index; without one, 64 bytes say it. */
  if (file < 0 || !start || pread(file, start, 64, 0) != 64 ||
      packbuf_peek(start, 64, &head_and_index, &total, &error) || head_and_index > 1 << 16)
    return 1;
  if (pread(file, start, (size_t)head_and_index, 0) != (ssize_t)head_and_index) return 1;
  if (packbuf_open_partial(&view, start, head_and_index, NULL, 0, PACKBUF_OPEN_TABLES, NULL, &error) ||
      packbuf_verify(&view, PACKBUF_LEVEL_INDEX, &error))
    return fail(&error);
  if (packbuf_select(&view, 0, fields, 3, rows, &arena, &selection, &error)) return fail(&error);
  /* Read 2: the ranges. Of a store that takes many ranges this is one request; of a file one pread each. */
  if (packbuf_select_ranges(&selection, 1, 0, 0, &arena, &ranges, &count, &error)) return fail(&error);
  fetched = (packbuf_fetched *)packbuf_arena_alloc(&arena, (size_t)count * sizeof *fetched, 8);
  for (uint64_t i = 0; i < count; i++) bytes += ranges[i].length;
  /* the pieces lie side by side: nothing else is there */
  data = (uint8_t *)packbuf_arena_alloc(&arena, (size_t)bytes, 64);
  if (!fetched || !data) return 1;
  for (uint64_t i = 0, at = 0; i < count; at += ranges[i++].length) {
    fetched[i].offset = ranges[i].offset;
    fetched[i].length = ranges[i].length;
    fetched[i].bytes = data + at;
    if (pread(file, data + at, (size_t)ranges[i].length, (off_t)ranges[i].offset) != (ssize_t)ranges[i].length)
      return 1;
  }
  close(file);
  printf("fetched %llu of %llu bytes in %llu ranges\n", (unsigned long long)(head_and_index + bytes),
         (unsigned long long)total, (unsigned long long)count);
  if (packbuf_open_partial(&view, start, head_and_index, fetched, count, 0, NULL, &error)) return fail(&error);
  if (packbuf_select(&view, 0, fields, 3, rows, &arena, &selection, &error)) return fail(&error);
  for (uint32_t i = 0; i < selection.node_count; i++) { /* the nodes in the order of the file: fields 3, 7, 11 */
    static const int numbers[] = {3, 7, 11};
    static int32_t mine[ROWS / LEARNERS][WIDTH];
    packbuf_select_into to;
    memset(&to, 0, sizeof to);
    to.data = mine;
    to.data_capacity = sizeof mine;
    if (packbuf_select_copy(&selection, selection.nodes[i], &to, NULL, &error)) return fail(&error);
    for (int r = 0; r < ROWS / LEARNERS; r++)
      for (int k = 0; k < WIDTH; k++)
        if (mine[r][k] != element(numbers[i], RANK + r * LEARNERS, k)) return 1;
    printf("%s: %d rows of %d\n", fields[i], ROWS / LEARNERS, WIDTH);
  }
  packbuf_arena_free(&arena);
  free(start);
  return 0;
}
