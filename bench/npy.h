/* bench/npy.h: reads .npy files of little-endian numbers.
 * May use: packbuf.h (dtypes), timing.h (memory). Must not know: columns, batches. */
#ifndef BENCH_NPY_H
#define BENCH_NPY_H

#include "packbuf.h"
#include "timing.h"

#include <dirent.h>

typedef struct bench_array {
  char name[64]; /* of the file, without .npy */
  packbuf_dtype dtype;
  uint8_t rank;
  uint64_t shape[PACKBUF_MAX_RANK];
  uint8_t *data;
  size_t size;
} bench_array;

/* The header's text, "{'descr': '<i8', 'fortran_order': False, 'shape': (180, 478), }". */
static int bench_npy_header(const char *text, bench_array *array) {
  static const struct {
    const char *text;
    packbuf_dtype_code code;
    unsigned bits;
  } known[] = {{"<i8", PACKBUF_DTYPE_INT, 64},   {"<i4", PACKBUF_DTYPE_INT, 32},   {"<i2", PACKBUF_DTYPE_INT, 16},
               {"|i1", PACKBUF_DTYPE_INT, 8},    {"|u1", PACKBUF_DTYPE_UINT, 8},   {"|b1", PACKBUF_DTYPE_BOOL, 8},
               {"<f4", PACKBUF_DTYPE_FLOAT, 32}, {"<f8", PACKBUF_DTYPE_FLOAT, 64}, {"<f2", PACKBUF_DTYPE_FLOAT, 16},
               {"<u2", PACKBUF_DTYPE_BFLOAT, 16}}; /* the sample's uint16 are the bits of bfloat16 */
  const char *type = strstr(text, "'descr': '"), *shape = strstr(text, "'shape': (");
  unsigned i = 0;
  if (!type || !shape || strstr(text, "'fortran_order': True")) return 0;
  while (i < sizeof known / sizeof known[0] && strncmp(type + 10, known[i].text, 3) != 0) i++;
  if (i == sizeof known / sizeof known[0]) return 0;
  array->dtype = packbuf_dtype_of(known[i].code, known[i].bits);
  for (shape += 10; *shape && *shape != ')' && array->rank < PACKBUF_MAX_RANK;) {
    char *end;
    array->shape[array->rank++] = strtoull(shape, &end, 10);
    shape = end + strspn(end, ", ");
  }
  return 1;
}

/* 0 when the file is no such array. The data are to be freed. */
static int bench_npy_read(const char *folder, const char *name, bench_array *array) {
  static char text[65536];
  char path[2048];
  unsigned char start[10];
  size_t length = 0;
  FILE *file;
  memset(array, 0, sizeof *array);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  snprintf(array->name, sizeof array->name, "%.*s", (int)(strlen(name) - 4), name);
  file = fopen(path, "rb");
  if (file && fread(start, 1, 10, file) == 10 && memcmp(start, "\x93NUMPY\1", 7) == 0) {
    length = start[8] + 256u * start[9];
    length = fread(text, 1, length, file) == length ? length : 0;
  }
  text[length ? length - 1 : 0] = 0;
  if (length && bench_npy_header(text, array)) {
    array->size = array->dtype.bits / 8;
    for (unsigned i = 0; i < array->rank; i++) array->size *= array->shape[i];
    array->data = (uint8_t *)bench_must(malloc(array->size + 1));
    if (fread(array->data, 1, array->size, file) != array->size) {
      free(array->data);
      array->data = NULL;
    }
  }
  if (file) fclose(file);
  if (!array->data) fprintf(stderr, "bench: %s: not a whole array of little-endian numbers\n", path);
  return array->data != NULL;
}

static int bench_npy_name(const struct dirent *entry) {
  const size_t length = strlen(entry->d_name);
  return length > 4 && strcmp(entry->d_name + length - 4, ".npy") == 0;
}

/* All arrays of a folder, in the order of their names; at most `room`. */
static unsigned bench_npy_folder(const char *folder, bench_array *arrays, unsigned room) {
  struct dirent **files;
  const int count = scandir(folder, &files, bench_npy_name, alphasort);
  unsigned read = 0;
  for (int i = 0; i < count; i++) {
    if (read < room && bench_npy_read(folder, files[i]->d_name, &arrays[read])) read++;
    free(files[i]);
  }
  if (count >= 0) free(files);
  return read;
}

#endif
