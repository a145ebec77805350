/* bench/columns.h: the columns that are packed: from the .npy files of $PACKBUF_DATA (those of one name in all batches
 * of a kind end to end, as one column), or made with published distributions when there are none.
 * May use: npy.h, timing.h (memory), packbuf.h (dtypes). Must not know: codecs. */
#ifndef BENCH_COLUMNS_H
#define BENCH_COLUMNS_H

#include "npy.h"
#include "packbuf.h"
#include "timing.h"

enum { BENCH_COLUMNS = 96 };

typedef struct bench_column {
  char name[80];    /* dense/input_ids */
  const char *what; /* main columns: what the targets call it, else NULL */
  int quick;        /* in a quick run too */
  packbuf_dtype dtype;
  unsigned unit;   /* bytes of one */
  unsigned narrow; /* bytes of the narrowest plain integer type that holds all of them; floats: unit */
  uint8_t *data;
  size_t size;
} bench_column;

typedef struct bench_columns {
  bench_column all[BENCH_COLUMNS];
  unsigned count;
  int made; /* not from files */
} bench_columns;

/* The column of that name, new where there is none. */
static bench_column *bench_column_of(bench_columns *columns, const char *name, packbuf_dtype dtype) {
  bench_column *column;
  for (unsigned i = 0; i < columns->count; i++) {
    if (strcmp(columns->all[i].name, name) == 0) return &columns->all[i];
  }
  if (columns->count == BENCH_COLUMNS) {
    fprintf(stderr, "bench: more than %d columns\n", BENCH_COLUMNS);
    exit(1);
  }
  column = &columns->all[columns->count++];
  memset(column, 0, sizeof *column);
  snprintf(column->name, sizeof column->name, "%s", name);
  column->dtype = dtype;
  column->unit = dtype.bits / 8;
  return column;
}

/* `size` more bytes at the end of a column, to be filled. */
static void *bench_column_grow(bench_column *column, size_t size) {
  column->data = (uint8_t *)bench_must(realloc(column->data, column->size + size + 1));
  column->size += size;
  return column->data + column->size - size;
}

static int64_t bench_integer(const bench_column *column, size_t i) {
  int64_t wide;
  int32_t word;
  int16_t half;
  const uint8_t *at = column->data + i * column->unit;
  switch (column->unit) {
    case 8: memcpy(&wide, at, 8); return wide;
    case 4: memcpy(&word, at, 4); return word;
    case 2: memcpy(&half, at, 2); return half;
    default: return *at;
  }
}

/* Fills `narrow`. */
static void bench_column_end(bench_column *column) {
  int64_t least = 0, most = 0;
  column->narrow = column->unit;
  if (column->dtype.code != PACKBUF_DTYPE_INT && column->dtype.code != PACKBUF_DTYPE_UINT) return;
  for (size_t i = 0; i < column->size / column->unit; i++) {
    const int64_t value = bench_integer(column, i);
    if (value < least) least = value;
    if (value > most) most = value;
  }
  while (column->narrow > 1) {
    const unsigned bits = column->narrow * 4; /* of half of it: unsigned where nothing is below 0 */
    if (least < 0 ? least < -((int64_t)1 << (bits - 1)) || most >= (int64_t)1 << (bits - 1) : most >> bits) break;
    column->narrow /= 2;
  }
}

/* ---- files ---- */

enum { BENCH_ARRAYS = 64 }; /* of one batch, at most */

static int bench_any_name(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* All arrays of DATA/batch_KIND/BATCH, each at the end of the column KIND/ARRAY. */
static void bench_load(bench_columns *columns, const char *data, const char *kind) {
  static bench_array arrays[BENCH_ARRAYS];
  char folder[512], batch[1024], name[80];
  struct dirent **batches;
  int count;
  snprintf(folder, sizeof folder, "%s/batch_%s", data, kind);
  count = scandir(folder, &batches, bench_any_name, alphasort);
  for (int i = 0; i < count; i++) {
    unsigned array_count;
    snprintf(batch, sizeof batch, "%s/%s", folder, batches[i]->d_name);
    array_count = bench_npy_folder(batch, arrays, BENCH_ARRAYS);
    for (unsigned k = 0; k < array_count; k++) {
      bench_column *column;
      snprintf(name, sizeof name, "%s/%.60s", kind, arrays[k].name);
      column = bench_column_of(columns, name, arrays[k].dtype);
      memcpy(bench_column_grow(column, arrays[k].size), arrays[k].data, arrays[k].size);
      free(arrays[k].data);
    }
    free(batches[i]);
  }
  if (count >= 0) free(batches);
}

/* Columns too short to be tiled (a number a row) are left out: the whole batches have them. */
static void bench_drop_short(bench_columns *columns) {
  unsigned kept = 0;
  for (unsigned i = 0; i < columns->count; i++) {
    if (columns->all[i].size < (size_t)128 << 10) free(columns->all[i].data);
    else columns->all[kept++] = columns->all[i];
  }
  columns->count = kept;
}

/* `out` gets the column again and again, in whole units. */
static void bench_tile(const bench_column *column, uint8_t *out, size_t size) {
  for (size_t at = 0; at < size; at += column->size) {
    memcpy(out + at, column->data, size - at < column->size ? size - at : column->size);
  }
}

#endif
