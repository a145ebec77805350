/* tools/export.c: a packed buffer as a folder: NAME.npy for each dense field of numbers, NAME.npy and NAME_offsets.npy
 * for ragged ones whose rows differ in their first dimension only, NAME.jsonl (a cell a line) for all else, values.json
 * for the batch values.
 * May use: packbuf.h, npy.c, cells. Must not know: the command line. */
#include "export.h"

enum { CHUNK = 1 << 20 }; /* bytes copied at a time */

static const struct packbuf_dtype int64 = {PACKBUF_DTYPE_INT, 64, 1};

static void open_file(export_job *job, output *out, const selected *from, const char *suffix) {
  text path = {NULL, 0, 0};
  char *name = safe_file_name(from->label, from->label_size);
  const char *other;
  text_printf(&path, "%s%s", name, suffix);
  text_add(&path, "", 1);
  free(name);
  name = strcpy((char *)must_alloc(path.size), path.data);
  strings_add(&job->made, name);
  other = name_set_add(&job->names, name, strlen(name), from->path);
  if (other) fail(job->file, "%s and %s would both be %s: unpack them apart with --fields", other, from->path, name);
  path.size = 0;
  text_printf(&path, "%s%s%s", job->folder, job->folder[strlen(job->folder) - 1] == '/' ? "" : "/", name);
  text_add(&path, "", 1);
  output_open(out, path.data); /* the path stays with the output */
}

static void close_file(output *out) {
  union {
    const char *in;
    char *out;
  } name;
  name.in = out->name;
  output_close(out);
  free(name.out);
}

/* The buffer of a role; 0 when there is none. */
static int find_buffer(const export_job *job, const packbuf_node *node, packbuf_role role, unsigned dim,
                       packbuf_buffer *buffer) {
  packbuf_error error;
  packbuf_status status = packbuf_get_buffer(job->view, node, role, dim, buffer, &error);
  if (status == PACKBUF_NOT_FOUND) return 0;
  if (status) fail_status(job->file, &error);
  return 1;
}

static void copy_elements(const export_job *job, const packbuf_buffer *buffer, uint64_t first, uint64_t count, void *to,
                          size_t capacity) {
  packbuf_error error;
  if (packbuf_copy_elements(job->view, buffer, first, count, to, capacity, &error)) fail_status(job->file, &error);
}

/* Elements first to first + count as little-endian bytes. */
static void write_elements(const export_job *job, output *out, const packbuf_buffer *buffer, uint64_t first,
                           uint64_t count) {
  size_t size = buffer->dtype.bits / 8u;
  uint64_t at, n;
  void *chunk = must_alloc(CHUNK);
  for (at = 0; at < count; at += n) {
    n = count - at < CHUNK / size ? count - at : CHUNK / size;
    copy_elements(job, buffer, first + at, n, chunk, CHUNK);
    if (big_endian()) reverse_elements(chunk, (size_t)n * size, buffer->dtype);
    output_write(out, chunk, (size_t)n * size);
    progress("unpacking", at + n, count);
  }
  free(chunk);
}

/* The elements of one cell after another, of a leaf that shares rows or prefixes. */
static void write_cells(const export_job *job, output *out, const packbuf_column *column) {
  packbuf_piece pieces[2];
  packbuf_error error;
  uint64_t row;
  unsigned count = 0, i;
  for (row = job->rows.first; row < job->rows.first + job->rows.count; row++) {
    if (packbuf_cell_pieces(column, row, pieces, &count, &error)) fail_status(job->file, &error);
    for (i = 0; i < count; i++) write_elements(job, out, &column->data, pieces[i].first, pieces[i].count);
  }
}

static int shares(const packbuf_column *column) { return column->row_index.storage || column->prefix_row.storage; }

static void note_bits(const export_job *job, const selected *from) {
  packbuf_dtype shown = npy_dtype(from->node.dtype);
  char is[32], as[32];
  if (job->quiet || memcmp(&shown, &from->node.dtype, sizeof shown) == 0) return;
  dtype_word(from->node.dtype, is, sizeof is);
  dtype_word(shown, as, sizeof as);
  say(job->file, "note: %s is %s, which .npy cannot name: its bits are written as %s", from->path, is, as);
}

/* "ns" when the leaf is a timestamp that numpy has, else NULL. */
static const char *unit_of(const packbuf_node *node, char *to) {
  if (node->logical_type != 1 || memcmp(&node->dtype, &int64, sizeof int64) != 0 ||
      !npy_unit(node->parameter.data, node->parameter.size))
    return NULL;
  memcpy(to, node->parameter.data, node->parameter.size);
  to[node->parameter.size] = 0;
  return to;
}

/* A leaf of numbers without masks and per-cell types, all its dtype known? */
static int plain_numbers(const export_job *job, const packbuf_node *node, packbuf_column *opened) {
  packbuf_buffer buffer;
  return node->kind == PACKBUF_LEAF && packbuf_dtype_name(node->dtype) &&
         packbuf_open_column(job->view, node->index, opened, NULL) == PACKBUF_OK &&
         !find_buffer(job, node, PACKBUF_ROLE_VALIDITY, 0, &buffer) &&
         !find_buffer(job, node, PACKBUF_ROLE_MISSING, 0, &buffer) &&
         !find_buffer(job, node, PACKBUF_ROLE_TYPES, 0, &buffer) &&
         !find_buffer(job, node, PACKBUF_ROLE_NDIMS, 0, &buffer);
}

static int export_dense(export_job *job, const selected *from) {
  const packbuf_node *node = &from->node;
  packbuf_column column;
  output out;
  uint64_t shape[PACKBUF_MAX_RANK + 1], elements = 1;
  char unit[8];
  unsigned i;
  if (node->codec != PACKBUF_CODEC_NDARRAY || node->rank >= PACKBUF_MAX_RANK || !plain_numbers(job, node, &column))
    return 0;
  shape[0] = job->rows.count;
  for (i = 0; i < node->rank; i++) {
    shape[i + 1] = node->shape[i];
    elements *= node->shape[i]; /* the head's check: times rows below 2^63 */
  }
  open_file(job, &out, from, ".npy");
  npy_header(&out.buffer, npy_dtype(node->dtype), unit_of(node, unit), node->rank + 1u, shape);
  if (shares(&column)) write_cells(job, &out, &column);
  else write_elements(job, &out, &column.data, job->rows.first * elements, job->rows.count * elements);
  close_file(&out);
  note_bits(job, from);
  return 1;
}

/* Are dimensions 1.. the same in all rows asked for? Then they are in shape[1..], and their product is returned, else
 * 0. */
static uint64_t trailing(const export_job *job, const packbuf_column *column, uint64_t *shape) {
  uint64_t product = 1, row, first[PACKBUF_MAX_RANK], here[PACKBUF_MAX_RANK];
  unsigned dim, rank = column->node.rank;
  packbuf_error error;
  if (rank < 2) return 1;
  if (!job->rows.count || packbuf_cell_shape(column, job->rows.first, &rank, first, &error)) return 0;
  for (row = job->rows.first; row < job->rows.first + job->rows.count; row++) {
    if (packbuf_cell_shape(column, row, &rank, here, &error)) fail_status(job->file, &error);
    if (memcmp(first + 1, here + 1, (rank - 1) * sizeof *here) != 0) return 0;
  }
  for (dim = 1; dim < rank; dim++) {
    shape[dim] = first[dim];
    if (!shape[dim] || product > INT64_MAX / shape[dim]) return 0;
    product *= shape[dim];
  }
  return product;
}

/* Where each row begins, in items of `item` elements, counted from the first; with no output, only how many there are.
 */
static uint64_t write_offsets(const export_job *job, output *out, const packbuf_column *column, uint64_t item) {
  uint64_t chunk[512], at = 0, row, n = 1;
  packbuf_piece pieces[2];
  packbuf_error error;
  unsigned count = 0, i;
  chunk[0] = 0;
  for (row = 0; row < job->rows.count; row++) {
    if (packbuf_cell_pieces(column, job->rows.first + row, pieces, &count, &error)) fail_status(job->file, &error);
    for (i = 0; i < count; i++) {
      if (pieces[i].count > INT64_MAX - at) fail(job->file, "row %llu: too many elements", (unsigned long long)row);
      at += pieces[i].count;
    }
    if (!out) continue;
    chunk[n++] = at / item;
    if (n < 512 && row + 1 < job->rows.count) continue;
    if (big_endian()) reverse_elements(chunk, (size_t)n * 8, int64);
    output_write(out, chunk, (size_t)n * 8);
    n = 0;
  }
  if (out && !job->rows.count) output_write(out, chunk, 8);
  return at / item;
}

static int export_ragged(export_job *job, const selected *from) {
  const packbuf_node *node = &from->node;
  packbuf_column column;
  packbuf_error error;
  output out;
  uint64_t shape[PACKBUF_MAX_RANK], item, first = 0, count = 0, offsets = job->rows.count + 1;
  char unit[8];
  if ((node->codec != PACKBUF_CODEC_RAGGED_TENSOR && node->codec != PACKBUF_CODEC_TYPED_RAGGED) || node->rank < 1 ||
      !plain_numbers(job, node, &column))
    return 0;
  item = trailing(job, &column, shape);
  if (!item) return 0;
  shape[0] = write_offsets(job, NULL, &column, item);
  open_file(job, &out, from, ".npy");
  npy_header(&out.buffer, npy_dtype(node->dtype), unit_of(node, unit), node->rank, shape);
  if (job->rows.count && packbuf_cell_extent(&column, job->rows.first, &first, &count, &error) && !shares(&column))
    fail_status(job->file, &error);
  if (shares(&column)) write_cells(job, &out, &column);
  else write_elements(job, &out, &column.data, first, shape[0] * item);
  close_file(&out);
  open_file(job, &out, from, "_offsets.npy");
  npy_header(&out.buffer, int64, NULL, 1, &offsets);
  (void)write_offsets(job, &out, &column, item);
  close_file(&out);
  note_bits(job, from);
  return 1;
}

static void export_cells(export_job *job, selected *from) {
  uint64_t chunk = batch_rows(1), at, n, i;
  packbuf_arena arena;
  output out;
  packbuf_arena_init(&arena, NULL);
  open_file(job, &out, from, ".jsonl");
  for (at = 0; at < job->rows.count; at += n) {
    n = job->rows.count - at < chunk ? job->rows.count - at : chunk;
    read_cells(from, job->view, job->file, job->rows.first + at, n, &arena);
    for (i = 0; i < n; i++) {
      print_cell(&out.buffer, from, job->view, job->file, job->rows.first + at + i, &arena);
      text_puts(&out.buffer, "\n");
      output_text(&out);
    }
    packbuf_arena_free(&arena);
    progress("unpacking", at + n, job->rows.count);
  }
  close_file(&out);
}

void export_columns(export_job *job, columns *list) {
  size_t i;
  for (i = 0; i < list->count; i++)
    if (!export_dense(job, &list->items[i]) && !export_ragged(job, &list->items[i])) export_cells(job, &list->items[i]);
}

void export_values(export_job *job) {
  columns list;
  selected values;
  packbuf_arena arena;
  output out;
  size_t i;
  static char label[] = "values", path[] = "(batch values)";
  memset(&values, 0, sizeof values);
  values.label = label;
  values.label_size = strlen(label);
  values.path = path;
  select_columns(&list, job->view, job->file, 1, NULL);
  packbuf_arena_init(&arena, NULL);
  open_file(job, &out, &values, ".json");
  text_puts(&out.buffer, "{");
  for (i = 0; i < list.count; i++) {
    if (i) text_puts(&out.buffer, ",");
    print_string(&out.buffer, list.items[i].label, list.items[i].label_size);
    text_puts(&out.buffer, ":");
    read_cells(&list.items[i], job->view, job->file, 0, 1, &arena);
    print_cell(&out.buffer, &list.items[i], job->view, job->file, 0, &arena);
    packbuf_arena_free(&arena);
    output_text(&out);
  }
  text_puts(&out.buffer, "}\n");
  close_file(&out);
  columns_free(&list);
}

void export_end(export_job *job) {
  union {
    const char *in;
    char *out;
  } name;
  size_t i;
  for (i = 0; i < job->made.count; i++) {
    name.in = job->made.items[i];
    free(name.out);
  }
  strings_free(&job->made);
  name_set_free(&job->names);
}
