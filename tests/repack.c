/* tests/repack.c: the canonical vectors of the spec (spec/vectors, or the folder given) are written here, byte for
 * byte: each is read back into values and packed again in its own profile (fields that are named behind it as they ask
 * for), to every address modulo 8. So every platform that runs this test shows that it writes the same bytes.
 * May use: packbuf.h, tap.h. Must not know: how the vectors were made. */
#include "../packbuf.h"
#include "tap.h"
#include <string.h>

static packbuf_error error;

static uint8_t *load(const char *root, const char *name, size_t *size) {
  char path[1024];
  FILE *file;
  uint8_t *data = (uint8_t *)malloc(1 << 20);
  *size = 0;
  if (data == NULL || snprintf(path, sizeof path, "%s/valid/%s", root, name) >= (int)sizeof path ||
      (file = fopen(path, "rb")) == NULL)
    return data;
  *size = fread(data, 1, 1 << 20, file);
  fclose(file);
  return data;
}

static void *take(packbuf_arena *arena, uint64_t size) {
  void *memory = packbuf_arena_alloc(arena, (size_t)size + 1, 16);
  if (memory == NULL) exit(2);
  memset(memory, 0, (size_t)size + 1);
  return memory;
}

/* An array: its elements copied out, added with the shape [rows, ...]. */
static packbuf_status add_array(packbuf_batch *batch, const packbuf_view *view, const packbuf_node *node,
                                const char *name, packbuf_arena *arena) {
  packbuf_column column;
  packbuf_buffer validity;
  packbuf_tensor tensor;
  uint64_t shape[PACKBUF_MAX_RANK + 1], cell = node->dtype.bits / 8, first = 0, count = 0;
  uint8_t *valid = NULL, *elements;
  packbuf_status status = packbuf_open_column(view, node->index, &column, &error);
  if (status) return status;
  memset(&tensor, 0, sizeof tensor);
  for (unsigned d = 0; d < node->rank; d++) cell *= node->shape[d];
  tensor.data = elements = (uint8_t *)take(arena, node->rows * cell);
  tensor.dtype = node->dtype;
  tensor.form = node->form;
  tensor.rank = (uint8_t)(node->rank + 1);
  tensor.shape = shape;
  shape[0] = node->rows;
  memcpy(shape + 1, node->shape, sizeof node->shape);
  if (node->form == PACKBUF_FORM_NATURAL) tensor.rank = 1;
  for (uint64_t row = 0; status == PACKBUF_OK && row < node->rows; row++) {
    status = packbuf_cell_extent(&column, row, &first, &count, &error);
    if (status == PACKBUF_OK)
      status = packbuf_copy_elements(view, &column.data, first, count, elements + row * cell, cell, &error);
  }
  if (status == PACKBUF_OK && packbuf_get_buffer(view, node, PACKBUF_ROLE_VALIDITY, 0, &validity, NULL) == PACKBUF_OK) {
    valid = (uint8_t *)take(arena, node->rows / 8 + 1);
    status = packbuf_copy_elements(view, &validity, 0, node->rows, valid, node->rows / 8 + 1, &error);
  }
  return status ? status : packbuf_add_tensor(batch, name, &tensor, valid, &error);
}

/* The dtypes that inference gives to numbers: every other one was an array. */
static int natural(packbuf_dtype dtype) {
  return dtype.code == PACKBUF_DTYPE_BOOL || (dtype.code <= PACKBUF_DTYPE_FLOAT && dtype.bits == 64);
}

static packbuf_status add_node(packbuf_batch *batch, const packbuf_view *view, uint32_t index, packbuf_arena *arena,
                               uint32_t *next) {
  packbuf_node node;
  packbuf_value *values;
  char *name;
  packbuf_status status = packbuf_get_node(view, index, &node, &error);
  if (status) return status;
  *next = index + 1 + node.descendants;
  name = (char *)take(arena, node.name.size);
  memcpy(name, node.name.data, node.name.size);
  if (node.scope == 0 && node.kind == PACKBUF_LEAF && node.codec == PACKBUF_CODEC_NDARRAY &&
      (node.rank > 0 || (node.form == PACKBUF_FORM_NATURAL && !natural(node.dtype))))
    return add_array(batch, view, &node, name, arena);
  values = (packbuf_value *)take(arena, (node.rows + 1) * sizeof *values);
  status = packbuf_read_column(view, index, 0, node.rows, arena, values, &error);
  if (status) return status;
  return node.scope ? packbuf_add_batch_value(batch, name, values, &error)
                    : packbuf_add_values(batch, name, values, &error);
}

static packbuf_status add_pair(packbuf_batch *batch, const packbuf_view *view, uint32_t index, packbuf_arena *arena) {
  packbuf_metadata pair;
  char *key, *text, *path = NULL;
  packbuf_status status = packbuf_get_metadata(view, index, &pair, &error);
  if (status) return status;
  key = (char *)take(arena, pair.key.size);
  text = (char *)take(arena, pair.text.size);
  memcpy(key, pair.key.data, pair.key.size);
  memcpy(text, pair.text.data, pair.text.size);
  if (pair.node != PACKBUF_NO_NODE) {
    path = (char *)take(arena, 4096);
    packbuf_node_path(view, pair.node, path, 4096);
  }
  return packbuf_add_metadata(batch, path, key, text, &error);
}

/* Why packbuf_add_... calls cannot say this batch, or NULL: their names, keys and texts end at a NUL, and metadata are
 * those of the buffer or of fields. */
static const char *unsayable(const packbuf_view *view) {
  for (uint32_t i = 0; i < view->node_count; i++) {
    packbuf_node node;
    if (packbuf_get_node(view, i, &node, NULL) == PACKBUF_OK && node.parent == UINT32_MAX &&
        memchr(node.name.data, 0, node.name.size))
      return "a NUL in a name";
  }
  for (uint32_t i = 0; i < view->metadata_count; i++) {
    packbuf_metadata pair;
    packbuf_node node;
    if (packbuf_get_metadata(view, i, &pair, NULL) != PACKBUF_OK) continue;
    if (memchr(pair.key.data, 0, pair.key.size) || memchr(pair.text.data, 0, pair.text.size))
      return "a NUL in metadata";
    if (pair.node != PACKBUF_NO_NODE && packbuf_get_node(view, pair.node, &node, NULL) == PACKBUF_OK && node.scope == 1)
      return "metadata of a batch value";
  }
  return NULL;
}

/* Which byte is the first that differs. */
static void note_difference(unsigned shift, packbuf_status status, const uint8_t *want, size_t want_size,
                            const uint8_t *have, uint64_t size) {
  size_t at = 0;
  while (at < want_size && at < size && want[at] == have[at]) at++;
  tap_note("at base + %u: %s, %lu bytes, not %lu; the first that differs is at %lu", shift, packbuf_status_name(status),
           (unsigned long)size, (unsigned long)want_size, (unsigned long)at);
}

/* The packing that writes a profile. */
static uint8_t packing_of(uint8_t profile) {
  static const uint8_t packings[4] = {PACKBUF_PACKING_NONE, PACKBUF_PACKING_BALANCED, PACKBUF_PACKING_FASTEST,
                                      PACKBUF_PACKING_SMALLEST};
  return profile < 4 ? packings[profile] : 0;
}

/* What fields ask for themselves, FIELD=WORD behind the name of a vector, which the text is cut to. */
static size_t asked_for(char *text, packbuf_schema *schemas) {
  static const char *const words[5] = {"keep_plain", "none", "balanced", "fastest", "smallest"};
  size_t count = 0;
  for (char *at = strchr(text, ' '), *word; at && (word = strchr(at, '=')) != NULL && count < 8; count++) {
    unsigned packing = 0;
    *at = *word++ = 0;
    memset(&schemas[count], 0, sizeof *schemas);
    schemas[count].path = at + 1;
    at = strchr(word, ' ');
    while (packing < 5 && strncmp(word, words[packing], strlen(words[packing]))) packing++;
    if (packing) schemas[count].packing = (uint8_t)packing;
    else schemas[count].flags = PACKBUF_KEEP_PLAIN;
  }
  return count;
}

/* 1 repacked and equal, 0 not, -1 cannot be said. Measured is the size, of a packed batch a bound. */
static int repack(char *name, const uint8_t *want, size_t want_size) {
  packbuf_schema schemas[8];
  packbuf_arena arena;
  packbuf_view view;
  packbuf_batch batch;
  packbuf_options options = packbuf_default_options();
  packbuf_status status = packbuf_open(&view, want, want_size, PACKBUF_OPEN_EXACT, NULL, &error);
  const int packed = want_size > 14 && (want[14] != 0 || strchr(name, ' '));
  uint64_t size = 0, written = 0;
  uint8_t *space;
  int same;
  if (status == PACKBUF_OK && unsayable(&view)) {
    tap_note("%s cannot be said: %s", name, unsayable(&view));
    return -1;
  }
  packbuf_arena_init(&arena, NULL);
  options.packing = packing_of(want[14]);
  options.schema_count = asked_for(name, schemas);
  options.schemas = schemas;
  options.alignment_exponent = view.alignment_exponent;
  memcpy(options.row_order_token, view.row_order_token, 16);
  if (!status) status = packbuf_batch_init(&batch, view.rows, &arena, &options, &error);
  for (uint32_t i = 0; !status && i < view.node_count;) status = add_node(&batch, &view, i, &arena, &i);
  for (uint32_t i = 0; !status && i < view.metadata_count; i++) status = add_pair(&batch, &view, i, &arena);
  if (!status) status = packbuf_measure(&batch, &size, &error);
  same = tap_ok(!status && (packed ? size >= want_size : size == want_size), "%s: measured %lu of %lu bytes (%s)", name,
                (unsigned long)size, (unsigned long)want_size, packbuf_status_name(status));
  space = (uint8_t *)take(&arena, size + 8);
  for (unsigned shift = 0; same && shift < 8; shift++) {
    memset(space, 0xA5, (size_t)size + 8);
    status = packbuf_write(&batch, space + shift, size, &written, &error);
    same = !status && written == want_size && memcmp(space + shift, want, want_size) == 0 &&
           (shift == 0 || space[shift - 1] == 0xA5) && space[shift + size] == 0xA5;
    if (!same) note_difference(shift, status, want, want_size, space + shift, written);
  }
  tap_ok(same, "%s: written byte for byte, to base + 0 to 7", name);
  packbuf_arena_free(&arena);
  return same;
}

/* Repacks what a list names: at least `enough` of it. */
static void repack_all(const char *root, const char *list, unsigned enough) {
  char *names, *name, *end;
  size_t size;
  unsigned done = 0, left_out = 0;
  names = (char *)load(root, list, &size);
  names[size] = 0;
  for (name = names; *name; name = end) {
    char path[300];
    uint8_t *data;
    end = name + strcspn(name, "\n");
    if (*end) *end++ = 0;
    snprintf(path, sizeof path, "%.*s.pbuf", (int)strcspn(name, " "), name);
    data = load(root, path, &size);
    if (repack(name, data, size) >= 0) done++;
    else left_out++;
    free(data);
  }
  free(names);
  tap_ok(done >= enough, "%s: %u vectors are written, %u cannot be said", list, done, left_out);
}

int main(int argc, char **argv) {
  const char *root = argc > 1 ? argv[1] : "spec/vectors";
  repack_all(root, "canonical.txt", 50);
  repack_all(root, "canonical_packed.txt", 15);
  return tap_plan_done();
}
