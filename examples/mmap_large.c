/* A file of 4 GiB (or as many as the argument says: more than there is memory, if you like) written and read by a
 * process that never holds more than 64 MiB: packbuf_write_through writes it through a window, leaving holes where all
 * is zero; reading maps it, and touches the pages of the rows that are read. POSIX. */
#define _DEFAULT_SOURCE
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WIDTH = 131072, EVERY = 1000 }; /* a row is 1 MiB; every 1000th is not all zero */

static packbuf_error error = {PACKBUF_INVALID_ARGUMENT,
                              PACKBUF_RULE_NONE,
                              "the file could not be written or mapped",
                              PACKBUF_NOWHERE,
                              PACKBUF_NOWHERE,
                              PACKBUF_NOWHERE,
                              PACKBUF_NOWHERE,
                              "", "", ""};
static int64_t zeros[WIDTH], row_of[WIDTH];

static int fail(void) {
  char line[512];
  packbuf_error_format(&error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

/* The callback: bytes to their place in the file, but for pages of zeros, which stay holes. */
static packbuf_status put(void *context, uint64_t offset, const void *bytes, size_t size) {
  const char *at = (const char *)bytes;
  while (size) {
    size_t piece = size < 65536 ? size : 65536;
    ssize_t wrote = (ssize_t)piece;
    if (memcmp(at, zeros, piece) != 0) wrote = pwrite(*(int *)context, at, piece, (off_t)offset);
    if (wrote <= 0) return PACKBUF_CAPACITY; /* the disk is full */
    at += wrote;
    offset += (uint64_t)wrote;
    size -= (size_t)wrote;
  }
  return PACKBUF_OK;
}

static int make(int file, uint64_t rows) {
  packbuf_schema plain = {"state", PACKBUF_CODEC_AUTO, {0, 0, 0}, PACKBUF_KEEP_PLAIN, 0, 0, 0, NULL};
  packbuf_options options = packbuf_default_options();
  packbuf_tensor *tensors = (packbuf_tensor *)calloc((size_t)rows, sizeof *tensors);
  uint64_t shape[1] = {WIDTH}, size = 0;
  packbuf_arena arena;
  packbuf_batch batch;
  int good;
  if (!tensors) return 0;
  for (int i = 0; i < WIDTH; i++) row_of[i] = i * i;
  for (uint64_t i = 0; i < rows; i++) {
    tensors[i].data = i % EVERY == EVERY - 1 ? row_of : zeros;
    tensors[i].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
    tensors[i].rank = 1;
    tensors[i].form = PACKBUF_FORM_TENSOR;
    tensors[i].shape = shape;
  }
  options.data_checksums = 0; /* they would be checked by reading everything */
  options.schemas = &plain;
  options.schema_count = 1;
  packbuf_arena_init(&arena, NULL);
  good = !packbuf_batch_init(&batch, rows, &arena, &options, &error) &&
         !packbuf_add_tensors(&batch, "state", tensors, &error) && !packbuf_measure(&batch, &size, &error) &&
         ftruncate(file, (off_t)size) == 0 && !packbuf_write_through(&batch, put, &file, 0, &error);
  packbuf_arena_free(&arena);
  free(tensors);
  return good;
}

/* Pages of the mapping that lie in memory. */
static uint64_t resident(void *mapped, size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page;
  unsigned char *in = (unsigned char *)malloc(pages);
  uint64_t count = 0;
  if (!in || mincore(mapped, size, (void *)in)) return UINT64_MAX;
  for (size_t i = 0; i < pages; i++) count += in[i] & 1;
  free(in);
  return count * page;
}

static int sum_row(const packbuf_view *view, uint64_t row, int64_t *sum) {
  packbuf_node node;
  packbuf_buffer data;
  const void *elements;
  *sum = 0;
  if (packbuf_find(view, 0, "state", &node, &error) ||
      packbuf_get_buffer(view, &node, PACKBUF_ROLE_DATA, 0, &data, &error) ||
      packbuf_get_typed(&data, node.dtype, &elements, &error))
    return 0;
  for (uint64_t i = 0; i < WIDTH; i++)
    *sum += ((const int64_t *)elements)[row * WIDTH + i]; /* all rows are as long: no need of the offsets */
  return 1;
}

int main(int argc, char **argv) {
  const char *path = "mmap_large.pbuf";
  const uint64_t rows = 1024 * (argc > 1 ? strtoull(argv[1], NULL, 10) : 4);
  struct rlimit memory = {(rlim_t)64 << 20, (rlim_t)64 << 20};
  struct rusage usage;
  packbuf_view view;
  int64_t first, want = 0;
  uint64_t size, held;
  void *mapped;
  int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
  if (file < 0 || rows < EVERY || setrlimit(RLIMIT_DATA, &memory) || !make(file, rows)) return fail();
  size = (uint64_t)lseek(file, 0, SEEK_END);
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  mapped = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED || madvise(mapped, (size_t)size, MADV_RANDOM)) return fail(); /* no reading ahead */
  if (packbuf_open(&view, mapped, size, PACKBUF_OPEN_EXACT, NULL, &error) || !sum_row(&view, EVERY - 1, &first))
    return fail();
  for (int i = 0; i < WIDTH; i++) want += row_of[i];
  held = resident(mapped, (size_t)size);
  getrusage(RUSAGE_SELF, &usage);
  printf("a file of %llu bytes: one row read, %llu KiB of it in memory; the process held at most %ld KiB\n",
         (unsigned long long)size, (unsigned long long)(held / 1024), usage.ru_maxrss);
  munmap(mapped, (size_t)size);
  close(file);
  remove(path);
  return first != want || usage.ru_maxrss > 65536;
}
