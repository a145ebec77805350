/* tools/cmd_pack.c: `packbuf pack`: array files and JSON lines into one packed buffer. Inputs are collected first (row
 * count and names are checked across them), then the batch is described, measured, and written once, straight into the
 * mapped output file.
 * May use: packbuf.h and the readers of input files. Must not know: the format. */
#include "tool.h"
#include "schema.h"

#include <unistd.h>

typedef struct input {
  source from;
  jsonl rows;                /* of a .jsonl, else rows.rows NULL */
  size_t first_array, count; /* of array files */
} input;

typedef struct job {
  const verb *command;
  packbuf_arena arena;
  input *inputs;
  size_t input_count;
  arrays arrays;
  pairs metadata;
  wishes wishes;
  name_set fields, values;
  strings ragged;
  int as_values, allow_paths, no_tags, have_rows;
  uint64_t rows;
  const char *rows_from;
  packbuf_batch batch;
} job;

void pairs_add(pairs *list, const char *key, const char *value, const char *file) {
  size_t i;
  for (i = 0; i < list->count; i++)
    if (strcmp(list->items[i].key, key) == 0) {
      if (strcmp(list->items[i].text, value) == 0 || !list->items[i].file) return; /* the command line's counts */
      if (!file) fail(NULL, "metadata %s is given twice", key);
      fail(file, "metadata %s differs from that in %s (--metadata %s=... decides)", key, list->items[i].file, key);
    }
  list->items = (string_pair *)must_resize(list->items, (list->count + 1) * sizeof *list->items);
  list->items[list->count].key = key;
  list->items[list->count].text = value;
  list->items[list->count++].file = file;
}

static int ends_with(const char *name, const char *suffix) {
  size_t n = strlen(name), m = strlen(suffix);
  return n > m && strcmp(name + n - m, suffix) == 0;
}

/* "a/b/c.npy" to "c". */
static const char *stem(const char *file, packbuf_arena *arena) {
  const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
  size_t size = strlen(name) - 4;
  char *copy = (char *)must_arena(arena, size + 1, 1);
  memcpy(copy, name, size);
  copy[size] = 0;
  return copy;
}

static char *folder_of(const char *file, packbuf_arena *arena) {
  const char *slash = strrchr(file, '/');
  size_t size = slash ? (size_t)(slash - file) + 1 : 1;
  char *copy = (char *)must_arena(arena, size + 1, 1);
  memcpy(copy, slash ? file : ".", size);
  copy[size] = 0;
  return copy;
}

static tag_context tags_of(job *to, const char *file) {
  tag_context context;
  memset(&context, 0, sizeof context);
  context.arena = &to->arena;
  context.folder = folder_of(file, &to->arena);
  context.allow_paths = to->allow_paths;
  context.no_tags = to->no_tags;
  return context;
}

/* ---- collecting ---- */

static void read_input(job *to, input *in, const char *file) {
  size_t i;
  memset(in, 0, sizeof *in);
  if (strcmp(file, "-") != 0 && !ends_with(file, ".jsonl") && !ends_with(file, ".ndjson") && !ends_with(file, ".npy") &&
      !ends_with(file, ".npz") && !ends_with(file, ".safetensors"))
    fail_usage(to->command, "%s: inputs end with .jsonl, .npy, .npz or .safetensors; - is JSON lines from stdin", file);
  source_open(&in->from, file);
  in->first_array = to->arrays.count;
  if (ends_with(file, ".npy")) {
    array *item = arrays_add(&to->arrays);
    item->name = stem(file, &to->arena);
    npy_read(file, in->from.data, in->from.size, item, &to->arena);
  } else if (ends_with(file, ".npz")) {
    npz_read(&in->from, &to->arrays, &to->arena);
  } else if (ends_with(file, ".safetensors")) {
    safetensors_read(&in->from, &to->arrays, &to->metadata, &to->arena);
  } else {
    tag_context context = tags_of(to, file);
    jsonl_read(&in->from, &context, &in->rows);
    if (!in->rows.rows) in->rows.rows = (packbuf_value *)must_alloc(sizeof(packbuf_value));
  }
  in->count = to->arrays.count - in->first_array;
  for (i = in->first_array; i < to->arrays.count; i++)
    if (to->arrays.items[i]->tensor.rank == 1 && to->arrays.items[i]->tensor.dtype.code <= PACKBUF_DTYPE_FLOAT)
      to->arrays.items[i]->tensor.form = PACKBUF_FORM_NATURAL; /* one plain number a row */
    else if (to->arrays.items[i]->tensor.rank == 1 && to->arrays.items[i]->tensor.dtype.code == PACKBUF_DTYPE_BOOL)
      to->arrays.items[i]->tensor.form = PACKBUF_FORM_NATURAL;
}

static void same_rows(job *to, const char *file, uint64_t rows) {
  if (!to->have_rows) {
    to->have_rows = 1;
    to->rows = rows;
    to->rows_from = file;
  } else if (rows != to->rows) {
    fail(file, "has %llu rows, but %s has %llu", (unsigned long long)rows, to->rows_from, (unsigned long long)to->rows);
  }
}

static void new_name(name_set *set, const char *what, const char *name, size_t size, const char *file) {
  const char *other = name_set_add(set, name, size, file);
  if (other) fail(file, "%s %.*s is in %s too", what, (int)size, name, other);
}

static array *find_array(const job *from, const char *name, size_t size) {
  size_t i;
  for (i = 0; i < from->arrays.count; i++)
    if (strlen(from->arrays.items[i]->name) == size && memcmp(from->arrays.items[i]->name, name, size) == 0)
      return from->arrays.items[i];
  fail_usage(from->command, "--ragged: no array %.*s among the inputs", (int)size, name);
}

/* The offsets that --ragged names for an array, or NULL. */
static array *offsets_of(const job *from, const array *data) {
  size_t i;
  for (i = 0; i < from->ragged.count; i++) {
    const char *spec = from->ragged.items[i], *equals = strchr(spec, '=');
    if (!equals) fail_usage(from->command, "--ragged: '%s' is not DATA=OFFSETS", spec);
    if (find_array(from, spec, (size_t)(equals - spec)) == data)
      return find_array(from, equals + 1, strlen(equals + 1));
  }
  return NULL;
}

static void check_ragged(job *to) {
  size_t i;
  for (i = 0; i < to->arrays.count; i++) {
    array *data = to->arrays.items[i], *offsets = offsets_of(to, data);
    if (!offsets) continue;
    if (offsets == data || offsets->tensor.rank != 1 || offsets->shape[0] < 1 || offsets->unit ||
        offsets->tensor.dtype.code != PACKBUF_DTYPE_INT || offsets->tensor.dtype.bits < 32)
      fail(offsets->file, "offsets for --ragged are int32 or int64 of one dimension, one more than there are rows");
    if (data->tensor.rank < 1 || data->tensor.strides)
      fail(data->file, "data for --ragged need a dimension and C order");
    offsets->offsets = 1;
  }
}

/* Is it a batch value: by wish, or for want of a dimension? */
static int is_value(const job *from, const array *item) { return from->as_values || item->tensor.rank == 0; }

static void check_names_and_rows(job *to) {
  size_t i, k, m;
  for (i = 0; i < to->input_count; i++) {
    const input *in = &to->inputs[i];
    for (k = in->first_array; k < in->first_array + in->count; k++) {
      array *item = to->arrays.items[k], *offsets = offsets_of(to, item);
      if (item->offsets) continue;
      new_name(is_value(to, item) ? &to->values : &to->fields, is_value(to, item) ? "batch value" : "field", item->name,
               strlen(item->name), item->file);
      if (offsets) same_rows(to, offsets->file, offsets->shape[0] - 1);
      else if (!is_value(to, item)) same_rows(to, item->file, item->shape[0]);
    }
    if (!in->rows.rows) continue;
    same_rows(to, in->from.name, in->rows.count);
    for (k = 0; k < in->rows.count; k++)
      for (m = 0; m < in->rows.rows[k].as.dict.count; m++) {
        const packbuf_value *key = &in->rows.rows[k].as.dict.entries[m].key;
        const char *other;
        if (name_set_find(&to->fields, key->as.text.data, key->as.text.size) == in->from.name) continue;
        other = name_set_add(&to->fields, key->as.text.data, key->as.text.size, in->from.name);
        if (other) fail(in->from.name, "field %.*s is in %s too", (int)key->as.text.size, key->as.text.data, other);
      }
  }
}

/* Wishes for arrays: views, and the timestamps that datetime64 arrays imply. */
static void apply_wishes(job *to) {
  size_t i;
  for (i = 0; i < to->arrays.count; i++) {
    array *item = to->arrays.items[i];
    char *path = escape_path(item->name, strlen(item->name));
    wish *found = wishes_find(&to->wishes, path, is_value(to, item));
    if (found && found->view.bits) {
      if (found->view.bits != item->tensor.dtype.bits) fail(item->file, "cannot be viewed as another size of elements");
      item->tensor.dtype = found->view;
      found->used = 1;
      if (found->view.code == PACKBUF_DTYPE_BFLOAT || found->view.code >= PACKBUF_DTYPE_COMPLEX)
        item->tensor.form = item->tensor.form == PACKBUF_FORM_NATURAL ? PACKBUF_FORM_ARRAY : item->tensor.form;
    }
    if (item->unit && !item->offsets && !(found && found->schema.logical_type)) {
      if (!found) {
        found = wishes_add(&to->wishes, strcpy((char *)must_arena(&to->arena, strlen(path) + 1, 1), path));
        found->schema.batch_value = (uint8_t)is_value(to, item);
      }
      found->schema.logical_type = 1;
      found->schema.parameter = item->unit;
    }
    free(path);
  }
  for (i = 0; i < to->wishes.count; i++)
    if (to->wishes.items[i].view.bits && !to->wishes.items[i].used)
      fail(NULL, "--schema: %s: view is for array inputs, and there is none of that name",
           to->wishes.items[i].schema.path);
}

/* ---- the batch ---- */

/* Ends the program with the file (and line) that the error is about. */
static void fail_batch(const job *from, const packbuf_error *error) TOOL_NORETURN;
static void fail_batch(const job *from, const packbuf_error *error) {
  char line[1024];
  text name = {NULL, 0, 0};
  const char *p, *file;
  size_t i;
  if (error->code == PACKBUF_NOT_FOUND)
    fail(NULL,
         wishes_find(&from->wishes, error->path, 1)
             ? "--schema: there is no batch value %s (of a field say no \"value\")"
             : "--schema: there is no field %s (of a batch value say \"value\": true)",
         error->path);
  for (p = error->path; *p && *p != '.' && *p != '['; p++) {
    if (*p == '\\' && p[1]) p++;
    text_add(&name, p, 1);
  }
  file = name_set_find(&from->fields, name.data ? name.data : "", name.size);
  if (!file) file = name_set_find(&from->values, name.data ? name.data : "", name.size);
  if (!file && from->input_count == 1) file = from->inputs[0].from.name;
  packbuf_error_format(error, line, sizeof line);
  for (i = 0; i < from->input_count; i++)
    if (file == from->inputs[i].from.name && from->inputs[i].rows.rows && error->row < from->inputs[i].rows.count)
      fail(file, "line %llu: %s", (unsigned long long)from->inputs[i].rows.lines[error->row], line);
  fail(file, "%s", line);
}

static void add_ragged(job *to, const array *item, const array *offsets) {
  packbuf_ragged ragged;
  packbuf_error error;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = item->tensor.data;
  ragged.dtype = item->tensor.dtype;
  ragged.form = item->tensor.form == PACKBUF_FORM_NATURAL ? PACKBUF_FORM_ARRAY : item->tensor.form;
  ragged.item_rank = (uint8_t)(item->tensor.rank - 1);
  ragged.item_shape = item->shape + 1;
  ragged.items = item->shape[0];
  ragged.offset_bits = offsets->tensor.dtype.bits;
  ragged.offsets = offsets->tensor.data;
  if (packbuf_add_ragged(&to->batch, item->name, &ragged, &error)) fail_batch(to, &error);
}

static void add_inputs(job *to) {
  packbuf_error error;
  size_t i, k;
  for (i = 0; i < to->input_count; i++) {
    const input *in = &to->inputs[i];
    if (in->rows.rows && packbuf_add_rows(&to->batch, in->rows.rows, &error)) fail_batch(to, &error);
    for (k = in->first_array; k < in->first_array + in->count; k++) {
      array *item = to->arrays.items[k], *offsets = offsets_of(to, item);
      if (item->offsets) continue;
      if (offsets) {
        add_ragged(to, item, offsets);
      } else if (is_value(to, item)) {
        packbuf_value value = packbuf_tensor_value(&item->tensor);
        if (item->tensor.form == PACKBUF_FORM_NATURAL) item->tensor.form = PACKBUF_FORM_ARRAY;
        if (item->tensor.form == PACKBUF_FORM_ARRAY && !item->tensor.rank) item->tensor.form = PACKBUF_FORM_SCALAR;
        if (packbuf_add_batch_value(&to->batch, item->name, &value, &error)) fail_batch(to, &error);
      } else if (packbuf_add_tensor(&to->batch, item->name, &item->tensor, NULL, &error)) {
        fail_batch(to, &error);
      }
    }
  }
}

static void add_values(job *to, const char *file) {
  source from;
  tag_context context = tags_of(to, file);
  packbuf_value all;
  packbuf_error error;
  size_t i;
  source_open(&from, file);
  json_read(&from, &context, &all);
  if (all.kind != PACKBUF_DICT) fail(file, "batch values are one JSON object");
  for (i = 0; i < all.as.dict.count; i++) {
    const packbuf_entry *entry = &all.as.dict.entries[i];
    char *name = (char *)must_arena(&to->arena, entry->key.as.text.size + 1, 1);
    memcpy(name, entry->key.as.text.data, entry->key.as.text.size);
    name[entry->key.as.text.size] = 0;
    if (strlen(name) != entry->key.as.text.size) fail(file, "a name has a NUL in it");
    new_name(&to->values, "batch value", name, strlen(name), file);
    if (packbuf_add_batch_value(&to->batch, name, &entry->value, &error)) fail_batch(to, &error);
  }
}

static void split_metadata(job *to, const strings *given) {
  size_t i;
  for (i = 0; i < given->count; i++) {
    const char *equals = strchr(given->items[i], '=');
    char *key;
    if (!equals) fail_usage(to->command, "--metadata: '%s' is not KEY=VALUE", given->items[i]);
    key = (char *)must_arena(&to->arena, (size_t)(equals - given->items[i]) + 1, 1);
    memcpy(key, given->items[i], (size_t)(equals - given->items[i]));
    key[equals - given->items[i]] = 0;
    pairs_add(&to->metadata, key, equals + 1, NULL);
  }
}

/* ---- writing ---- */

static void write_batch(job *from, const char *name, int exact) {
  packed_file to;
  packbuf_error error;
  if (packed_write(&to, name, &from->batch, exact, &error)) fail_batch(from, &error);
  packed_close(&to);
}

static packbuf_options batch_options(job *from, const char *packing, const char *link, const char *align,
                                     int no_checksums) {
  packbuf_options options = packbuf_default_options();
  packbuf_schema *schemas =
      (packbuf_schema *)must_arena(&from->arena, from->wishes.count * sizeof *schemas, sizeof(void *));
  size_t i;
  if (align) {
    uint64_t bytes = parse_number(from->command, "align", align);
    for (options.alignment_exponent = 6;
         options.alignment_exponent < 12 && (uint64_t)1 << options.alignment_exponent != bytes;)
      options.alignment_exponent++;
    if ((uint64_t)1 << options.alignment_exponent != bytes)
      fail_usage(from->command, "--align: 64, 128, 256, 512, 1024, 2048 or 4096, not %s", align);
  }
  packing_options(from->command, packing, link, &options);
  options.data_checksums = !no_checksums;
  for (i = 0; i < from->wishes.count; i++) schemas[i] = from->wishes.items[i].schema;
  options.schemas = schemas;
  options.schema_count = from->wishes.count;
  return options;
}

/* Is the size known before it is written? */
static int nothing_packed(const packbuf_options *options) {
  size_t i;
  for (i = 0; i < options->schema_count; i++)
    if (options->schemas[i].packing > PACKBUF_PACKING_NONE) return 0;
  return options->packing <= PACKBUF_PACKING_NONE;
}

int run_pack(const verb *command, int argc, char **argv) {
  static job it;
  const char *name = NULL, *values = NULL, *schema = NULL, *packing = NULL, *link = NULL, *align = NULL;
  int no_checksums = 0;
  strings rest = {NULL, 0}, metadata = {NULL, 0};
  const option options[] = {{'o', "output", NULL, &name, NULL},
                            {0, "values", NULL, &values, NULL},
                            {0, "schema", NULL, &schema, NULL},
                            {0, "metadata", NULL, NULL, &metadata},
                            {0, "packing", NULL, &packing, NULL},
                            {0, "link", NULL, &link, NULL},
                            {0, "align", NULL, &align, NULL},
                            {0, "no-checksums", &no_checksums, NULL, NULL},
                            {0, "ragged", NULL, NULL, &it.ragged},
                            {0, "as-values", &it.as_values, NULL, NULL},
                            {0, "allow-paths", &it.allow_paths, NULL, NULL},
                            {0, "no-tags", &it.no_tags, NULL, NULL},
                            {0, NULL, NULL, NULL, NULL}};
  packbuf_options how;
  packbuf_error error;
  source schema_source;
  size_t i;
  parse_options(command, argc, argv, options, &rest);
  it.command = command;
  if (!rest.count) fail_usage(command, "no input files");
  if (!name) fail_usage(command, "-o OUT.pbuf is missing");
  if (strcmp(name, "-") == 0 && isatty(1))
    fail_usage(command, "a packed buffer is not for a terminal: -o FILE, or a pipe");
  packbuf_arena_init(&it.arena, NULL);
  split_metadata(&it, &metadata);
  it.inputs = (input *)must_alloc(rest.count * sizeof *it.inputs);
  for (i = 0; i < rest.count; i++, it.input_count++) read_input(&it, &it.inputs[i], rest.items[i]);
  if (schema) {
    source_open(&schema_source, schema);
    schema_read(&schema_source, &it.wishes, &it.arena);
  }
  check_ragged(&it);
  check_names_and_rows(&it);
  apply_wishes(&it);
  how = batch_options(&it, packing, link, align, no_checksums);
  if (packbuf_batch_init(&it.batch, it.rows, &it.arena, &how, &error)) fail_status(name, &error);
  add_inputs(&it);
  if (values) add_values(&it, values);
  for (i = 0; i < it.metadata.count; i++)
    if (packbuf_add_metadata(&it.batch, NULL, it.metadata.items[i].key, it.metadata.items[i].text, &error))
      fail_status(it.metadata.items[i].file, &error);
  write_batch(&it, name, nothing_packed(&how));
  strings_free(&metadata);
  strings_free(&rest);
  return TOOL_OK;
}
