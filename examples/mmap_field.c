/* One field of a .pbuf file through mmap: opening touches the head, reading touches that field's pages, nothing else is
 * loaded. POSIX. */
#define _POSIX_C_SOURCE 200809L
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROWS = 1000, WIDTH = 64 };

static int fail(const packbuf_error *error) {
  char line[512];
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

/* A file to read: two fields of 1000 x 64. */
static int make(const char *path, packbuf_error *error) {
  static int64_t ids[ROWS][WIDTH];
  static float values[ROWS][WIDTH];
  uint64_t shape[2] = {ROWS, WIDTH}, size;
  packbuf_tensor a = {ids, {PACKBUF_DTYPE_INT, 64, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
  packbuf_tensor b = {values, {PACKBUF_DTYPE_FLOAT, 32, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
  packbuf_arena arena;
  packbuf_batch batch;
  void *packed;
  FILE *file;
  int good;
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < WIDTH; j++) {
      ids[i][j] = i * 1000 + j;
      values[i][j] = (float)i + (float)j / WIDTH;
    }
  packbuf_arena_init(&arena, NULL);
  if (packbuf_batch_init(&batch, ROWS, &arena, NULL, error) ||
      packbuf_add_tensor(&batch, "input_ids", &a, NULL, error) ||
      packbuf_add_tensor(&batch, "values", &b, NULL, error) || packbuf_pack(&batch, &packed, &size, error))
    return 0;
  file = fopen(path, "wb");
  good = file && fwrite(packed, 1, (size_t)size, file) == size;
  if (file) good = fclose(file) == 0 && good;
  packbuf_arena_free(&arena);
  return good;
}

int main(void) {
  const char *path = "mmap_field.pbuf";
  packbuf_error error = {PACKBUF_INVALID_ARGUMENT,
                         PACKBUF_RULE_NONE,
                         "the file could not be written",
                         PACKBUF_NOWHERE,
                         PACKBUF_NOWHERE,
                         PACKBUF_NOWHERE,
                         PACKBUF_NOWHERE,
                         "", "", ""};
  static const char *const wanted[] = {"values"};
  packbuf_arena arena;
  packbuf_view view;
  packbuf_node node;
  packbuf_selection rows;
  packbuf_selected_tensor in_place;
  packbuf_select_into into;
  static float copy[ROWS * WIDTH];
  const float *elements = copy;
  packbuf_status status;
  struct stat info;
  void *mapped;
  int file;
  packbuf_arena_init(&arena, NULL);
  if (!make(path, &error)) return fail(&error);
  file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &info)) return fail(&error);
  mapped = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) return fail(&error);
  if (packbuf_open(&view, mapped, (uint64_t)info.st_size, PACKBUF_OPEN_EXACT, NULL, &error) ||
      packbuf_find(&view, 0, "values", &node, &error) ||
      packbuf_select(&view, 0, wanted, 1, packbuf_rows_all(), &arena, &rows, &error))
    return fail(&error);
  status = packbuf_select_tensor(&rows, node.index, &in_place, &error);
  if (status == PACKBUF_OK) elements = (const float *)in_place.tensor.data;
  else if (status == PACKBUF_NOT_STORED || status == PACKBUF_UNALIGNED) { /* equal rows stored once, say: copy them */
    memset(&into, 0, sizeof into);
    into.data = copy;
    into.data_capacity = sizeof copy;
    status = packbuf_select_copy(&rows, node.index, &into, NULL, &error);
  }
  if (status) return fail(&error);
  printf("values[999][32] = %g, %s\n", (double)elements[999 * WIDTH + 32],
         elements == copy ? "copied out" : "read in place from the mapped file");
  packbuf_arena_free(&arena);
  munmap(mapped, (size_t)info.st_size);
  close(file);
  return remove(path);
}
