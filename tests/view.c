/* tests/view.c: reading through the view: any base address, guard pages, paths, limits, ranges, typed and copied
 * elements, arenas that fail at every allocation, and memory that another thread rewrites meanwhile.
 * May use: packbuf.h, tagged.h, tap.h, the valid vectors (folder argv[1], default spec/vectors).
 * Must not know: how a view looks inside. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "internals.h"
#include "tagged.h"
#include "failing.h"
#include "tap.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const char *root = "spec/vectors";

typedef struct file {
  uint8_t *data;
  size_t size;
} file;

static file load(const char *name) {
  char path[1024];
  file f = {NULL, 0};
  FILE *stream;
  snprintf(path, sizeof path, "%s/%s", root, name);
  stream = fopen(path, "rb");
  if (stream == NULL) return f;
  f.data = (uint8_t *)malloc(1 << 20);
  if (f.data) f.size = fread(f.data, 1, 1 << 20, stream);
  fclose(stream);
  return f;
}

/* Opens, verifies at every level and prints all; the text, or NULL. The caller frees it. */
static char *everything(const uint8_t *data, size_t size, packbuf_status *status) {
  packbuf_view view;
  packbuf_arena arena;
  packbuf_error error;
  tagged_text text = {NULL, 0, 0, 0};
  packbuf_arena_init(&arena, NULL);
  arena.limit = 1 << 24;
  *status = packbuf_open(&view, data, size, 0, NULL, &error);
  if (*status == PACKBUF_OK) *status = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
  if (*status == PACKBUF_OK || view.rows <= 1000) {
    const packbuf_status printed = view.node_count ? tagged_batch(&text, &view, &arena, &error) : *status;
    if (*status == PACKBUF_OK) *status = printed;
  }
  packbuf_arena_free(&arena);
  return text.data;
}

static void any_address(void) {
  const file f = load("valid/everything_stored.pbuf");
  const packbuf_dtype u64 = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64);
  packbuf_status status;
  char *want = everything(f.data, f.size, &status);
  uint8_t *memory = (uint8_t *)malloc(f.size + 128);
  int same = want != NULL && status == PACKBUF_OK, typed = 1, copied = 1;
  for (size_t shift = 0; shift < 64 && same; shift++) {
    packbuf_view view;
    char *got;
    memset(memory, 0xA5, f.size + 128);
    memcpy(memory + shift, f.data, f.size);
    got = everything(memory + shift, f.size, &status);
    same = got && status == PACKBUF_OK && strcmp(got, want) == 0;
    free(got);
    (void)packbuf_open(&view, memory + shift, f.size, 0, NULL, NULL);
    for (uint32_t i = 0; i < view.buffer_count; i++) {
      packbuf_buffer buffer;
      const void *elements;
      uint64_t out[8], first;
      if (packbuf_get_buffer_at(&view, i, &buffer, NULL) != PACKBUF_OK || buffer.role != PACKBUF_ROLE_OFFSETS) continue;
      status = packbuf_get_typed(&buffer, u64, &elements, NULL);
      if (packbuf_i_big_endian()) typed &= status == PACKBUF_NOT_STORED;
      else
        typed &= ((uintptr_t)buffer.bytes % 8 == 0) == (status == PACKBUF_OK) &&
                 (status == PACKBUF_OK || status == PACKBUF_UNALIGNED);
      typed &=
          packbuf_get_typed(&buffer, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), &elements, NULL) == PACKBUF_WRONG_TYPE;
      status = packbuf_copy_elements(&view, &buffer, 1, 1, out, sizeof out, NULL);
      first = packbuf_i_load64(buffer.bytes + 8);
      copied &= status == PACKBUF_OK && out[0] == first;
    }
  }
  tap_ok(same, "the same text from every address 0 to 63");
  tap_ok(typed, "typed access: aligned, UNALIGNED, WRONG_TYPE");
  tap_ok(copied, "copies from every address");
  free(memory);
  free(want);
  free(f.data);
}

static void capacity(void) {
  const file f = load("valid/everything_canonical.pbuf");
  packbuf_view view;
  packbuf_error error;
  uint64_t head = 0, total = 0;
  memset(f.data + f.size, 0xEE, 1000);
  tap_ok(packbuf_open(&view, f.data, f.size + 1000, 0, NULL, &error) == PACKBUF_OK &&
             packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) == PACKBUF_OK,
         "capacity beyond the end");
  tap_ok(packbuf_open(&view, f.data, f.size + 1000, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_TRAILING_BYTES &&
             error.offset == f.size && error.rule == PACKBUF_RULE_H9,
         "PACKBUF_OPEN_EXACT refuses it");
  tap_ok(view.node_count == 0 && view.base == NULL, "a view that did not open is empty");
  tap_ok(packbuf_open(&view, f.data, f.size, PACKBUF_OPEN_EXACT, NULL, NULL) == PACKBUF_OK, "exact");
  tap_ok(packbuf_peek(f.data, 64, &head, &total, &error) == PACKBUF_OK &&
             head == view.head_length + view.index_length && total == f.size,
         "peek needs 64 bytes");
  tap_ok(packbuf_peek(f.data, 63, &head, &total, &error) == PACKBUF_TRUNCATED && error.rule == PACKBUF_RULE_H1 &&
             error.needed == 64,
         "and not 63");
  tap_ok(packbuf_open(&view, f.data, 127, 0, NULL, &error) == PACKBUF_TRUNCATED && error.rule == PACKBUF_RULE_H1 &&
             error.needed == 128,
         "opening says that it needs 128");
  tap_ok(packbuf_open(&view, f.data, f.size - 1, 0, NULL, &error) == PACKBUF_TRUNCATED &&
             error.rule == PACKBUF_RULE_H8 && error.offset == f.size - 1 && error.needed == f.size,
         "and of a buffer that is cut, how long it was");
  tap_ok(packbuf_open(&view, f.data, f.size, 4, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_open(NULL, f.data, f.size, 0, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_open(&view, NULL, 1, 0, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_open(&view, NULL, 0, 0, NULL, &error) == PACKBUF_TRUNCATED,
         "arguments are checked");
  free(f.data);
}

static packbuf_status find_status(const packbuf_view *view, const char *path) {
  packbuf_node node;
  return packbuf_find(view, 0, path, &node, NULL);
}

/* Every node is found by its own path (but for names with a NUL). */
static int paths_round_trip(const packbuf_view *view) {
  int good = 1;
  for (uint32_t i = 0; i < view->node_count; i++) {
    packbuf_node node, found;
    char path[1024];
    packbuf_status status;
    int nul;
    if (packbuf_get_node(view, i, &node, NULL) != PACKBUF_OK) return 0;
    nul = memchr(node.name.data, 0, node.name.size) != NULL;
    if (packbuf_node_path(view, i, path, sizeof path) != strlen(path)) return 0;
    status = packbuf_find(view, node.scope, path, &found, NULL);
    if (nul ? status != PACKBUF_NOT_FOUND : status != PACKBUF_OK || found.index != i) {
      tap_note("node %u: %s: %s", i, path, packbuf_status_name(status));
      good = 0;
    }
  }
  return good;
}

static void paths(void) {
  static const char *const vectors[] = {"valid/names.pbuf",           "valid/shared_names.pbuf",
                                        "valid/same_name_twice.pbuf", "valid/nested_lists.pbuf",
                                        "valid/depth_64.pbuf",        "valid/everything_stored.pbuf"};
  static const char *const wrong[] = {"a\\", "a\\x", "a[", "a[]", "a[x]", "a[1", "a[0]x", "a[99999999999]", "a[-1]"};
  file f;
  packbuf_view view;
  packbuf_node node;
  char path[24];
  for (unsigned i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    f = load(vectors[i]);
    tap_ok(packbuf_open(&view, f.data, f.size, 0, NULL, NULL) == PACKBUF_OK && view.node_count > 0 &&
               paths_round_trip(&view),
           "%s: every node is found by its path", vectors[i]);
    free(f.data);
  }
  f = load("valid/names.pbuf");
  if (!tap_ok(packbuf_open(&view, f.data, f.size, 0, NULL, NULL) == PACKBUF_OK, "names open")) return;
  tap_ok(packbuf_find(&view, 0, "a[0].\\\\[0].q", &node, NULL) == PACKBUF_OK ||
             packbuf_find(&view, 0, "a.\\\\[0].q", &node, NULL) == PACKBUF_OK,
         "a nested path with escapes");
  tap_ok(packbuf_find(&view, 0, "", &node, NULL) == PACKBUF_OK && node.name.size == 0, "the empty name");
  tap_ok(find_status(&view, "nothing") == PACKBUF_NOT_FOUND && find_status(&view, "Z.x") == PACKBUF_NOT_FOUND &&
             find_status(&view, "Z[0]") == PACKBUF_NOT_FOUND && find_status(&view, "a\\.") == PACKBUF_NOT_FOUND &&
             packbuf_find(&view, 1, "Z", &node, NULL) == PACKBUF_NOT_FOUND,
         "what is not there is NOT_FOUND");
  for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    const packbuf_status status = find_status(&view, wrong[i]);
    tap_ok(status == PACKBUF_INVALID_ARGUMENT || (status == PACKBUF_NOT_FOUND && strncmp(wrong[i], "a[", 2) == 0),
           "%s is no path: %s", wrong[i], packbuf_status_name(status));
  }
  tap_ok(packbuf_find(&view, 2, "Z", &node, NULL) == PACKBUF_INVALID_ARGUMENT &&
             packbuf_find(&view, 0, NULL, &node, NULL) == PACKBUF_INVALID_ARGUMENT,
         "arguments of find");
  free(f.data);
  f = load("valid/depth_64.pbuf");
  (void)packbuf_open(&view, f.data, f.size, 0, NULL, NULL);
  tap_ok(packbuf_node_path(&view, view.node_count - 1, path, sizeof path) > sizeof path &&
             strlen(path) == sizeof path - 1 && strncmp(path, "...", 3) == 0,
         "a long path is cut at the front: %s", path);
  tap_ok(packbuf_node_path(&view, 0, NULL, 0) > 0 && packbuf_node_path(&view, 0, path, 1) > 0 && path[0] == 0,
         "no room at all");
  free(f.data);
}

static void ranges(void) {
  const file f = load("valid/everything_stored.pbuf");
  packbuf_view view;
  packbuf_arena arena;
  packbuf_node node;
  packbuf_value value, values[8];
  packbuf_buffer buffer;
  packbuf_metadata metadata;
  packbuf_column column;
  packbuf_error error;
  uint64_t a, b, shape[8], out[64];
  unsigned rank;
  const void *bytes;
  int state, good = 1;
  packbuf_arena_init(&arena, NULL);
  if (!tap_ok(packbuf_open(&view, f.data, f.size, 0, NULL, NULL) == PACKBUF_OK, "ranges open")) return;
  good &= packbuf_get_node(&view, view.node_count, &node, &error) == PACKBUF_OUT_OF_RANGE;
  good &= packbuf_get_buffer_at(&view, view.buffer_count, &buffer, &error) == PACKBUF_OUT_OF_RANGE;
  good &= packbuf_get_metadata(&view, view.metadata_count, &metadata, &error) == PACKBUF_OUT_OF_RANGE;
  good &= packbuf_open_column(&view, UINT32_MAX, &column, &error) == PACKBUF_OUT_OF_RANGE;
  good &= packbuf_read_rows(&view, view.rows, 1, &arena, &value, &error) == PACKBUF_OUT_OF_RANGE;
  good &= packbuf_read_rows(&view, 1, UINT64_MAX, &arena, &value, &error) == PACKBUF_OUT_OF_RANGE;
  good &= packbuf_read_rows(&view, view.rows, 0, &arena, &value, &error) == PACKBUF_OK;
  good &=
      packbuf_read_row(&view, UINT64_MAX, &arena, &value, &error) == PACKBUF_OUT_OF_RANGE && error.row == UINT64_MAX;
  tap_ok(good, "tables and rows");
  good = 1;
  for (uint32_t i = 0; i < view.node_count; i++) {
    if (packbuf_open_column(&view, i, &column, &error) != PACKBUF_OK) continue;
    good &= packbuf_cell_state(&column, column.node.rows, &state, &error) == PACKBUF_OUT_OF_RANGE &&
            error.row == column.node.rows;
    good &= packbuf_cell_extent(&column, column.node.rows, &a, &b, &error) == PACKBUF_OUT_OF_RANGE;
    good &= packbuf_cell_shape(&column, column.node.rows, &rank, shape, &error) == PACKBUF_OUT_OF_RANGE;
    good &= packbuf_cell_bytes(&column, column.node.rows, &bytes, &a, &error) == PACKBUF_OUT_OF_RANGE;
    good &= packbuf_read_cell(&view, i, column.node.rows, &arena, &value, &error) == PACKBUF_OUT_OF_RANGE &&
            error.path[0] != 0;
    good &= packbuf_read_column(&view, i, 1, column.node.rows, &arena, values, &error) == PACKBUF_OUT_OF_RANGE;
    good &= packbuf_read_column(&view, i, UINT64_MAX, 2, &arena, values, &error) == PACKBUF_OUT_OF_RANGE;
  }
  tap_ok(good, "cells");
  good = 1;
  for (uint32_t i = 0; i < view.buffer_count; i++) {
    if (packbuf_get_buffer_at(&view, i, &buffer, &error) != PACKBUF_OK) continue;
    good &= packbuf_copy_elements(&view, &buffer, buffer.count + 1, 0, out, sizeof out, &error) == PACKBUF_OUT_OF_RANGE;
    good &= packbuf_copy_elements(&view, &buffer, 0, buffer.count + 1, out, sizeof out, &error) == PACKBUF_OUT_OF_RANGE;
    good &= packbuf_copy_elements(&view, &buffer, 8, UINT64_MAX, out, sizeof out, &error) == PACKBUF_OUT_OF_RANGE;
    if (buffer.count)
      good &= packbuf_copy_elements(&view, &buffer, 0, buffer.count, out, 0, &error) == PACKBUF_CAPACITY &&
              error.needed == (buffer.count * buffer.dtype.bits * buffer.dtype.lanes + 7) / 8;
    if (buffer.dtype.bits == 1 && buffer.count > 1)
      good &= packbuf_copy_elements(&view, &buffer, 1, 1, out, sizeof out, &error) == PACKBUF_INVALID_ARGUMENT;
    (void)packbuf_get_node(&view, buffer.node, &node, &error);
    good &= packbuf_get_buffer(&view, &node, (packbuf_role)buffer.role, buffer.dim, &buffer, &error) == PACKBUF_OK &&
            buffer.index == i;
    good &= packbuf_get_buffer(&view, &node, PACKBUF_ROLE_DATA, 7, &buffer, &error) == PACKBUF_NOT_FOUND;
  }
  tap_ok(good, "elements");
  packbuf_arena_free(&arena);
  free(f.data);
}

/* Constants, sequences and bits as they are copied out. */
static void computed(void) {
  static const char *const vectors[] = {"valid/constants.pbuf", "valid/sequences.pbuf", "valid/sequence_data.pbuf",
                                        "valid/long_masks.pbuf", "valid/constant_ndarray.pbuf"};
  unsigned constants = 0, sequences = 0, bits = 0;
  int good = 1;
  for (unsigned v = 0; v < sizeof vectors / sizeof *vectors; v++) {
    const file f = load(vectors[v]);
    packbuf_view view;
    good &= packbuf_open(&view, f.data, f.size, 0, NULL, NULL) == PACKBUF_OK;
    for (uint32_t i = 0; i < view.buffer_count; i++) {
      packbuf_buffer b;
      uint8_t out[4096];
      const void *elements;
      uint64_t count, size;
      if (packbuf_get_buffer_at(&view, i, &b, NULL) != PACKBUF_OK) good = 0;
      count = b.count < 500 ? b.count : 500;
      size = b.dtype.bits / 8u;
      if (b.dtype.bits > 64) continue;
      good &= packbuf_copy_elements(&view, &b, 0, count, out, sizeof out, NULL) == PACKBUF_OK;
      if (b.storage == PACKBUF_CONSTANT || b.storage == PACKBUF_SEQUENCE)
        good &= packbuf_get_typed(&b, b.dtype, &elements, NULL) == PACKBUF_NOT_STORED;
      for (uint64_t k = 0; k < count; k++) {
        if (b.dtype.bits == 1) {
          const int want = b.bytes ? b.bytes[k / 8] >> k % 8 & 1 : b.value[0];
          good &= (out[k / 8] >> k % 8 & 1) == want;
          bits++;
        } else if (b.storage == PACKBUF_CONSTANT) {
          uint8_t native[8];
          for (uint64_t j = 0; j < size; j++)
            native[j] = b.value[packbuf_i_big_endian() && b.dtype.code != PACKBUF_DTYPE_COMPLEX ? size - 1 - j : j];
          if (b.dtype.code != PACKBUF_DTYPE_COMPLEX) good &= memcmp(out + k * size, native, (size_t)size) == 0;
          constants++;
        } else if (b.storage == PACKBUF_SEQUENCE) {
          uint64_t got;
          memcpy(&got, out + k * 8, 8);
          good &= got == packbuf_i_load64(b.value) + k * packbuf_i_load64(b.value + 8);
          sequences++;
        }
      }
    }
    free(f.data);
  }
  tap_ok(good && constants > 0 && sequences > 0 && bits > 0,
         "computed elements: %u of constants, %u of sequences, %u bits", constants, sequences, bits);
}

static packbuf_rule rule_with(const file *f, const packbuf_limits *limits, packbuf_level level) {
  packbuf_view view;
  packbuf_error error;
  memset(&error, 0, sizeof error);
  if (packbuf_open(&view, f->data, f->size, 0, limits, &error) == PACKBUF_OK)
    (void)packbuf_verify(&view, level, &error);
  return error.rule;
}

static void limits(void) {
  file f = load("valid/everything_stored.pbuf");
  packbuf_limits l = packbuf_default_limits();
  packbuf_view view;
  packbuf_arena arena;
  packbuf_value value;
  packbuf_error error;
  packbuf_status status = PACKBUF_LIMIT;
  (void)packbuf_open(&view, f.data, f.size, 0, NULL, NULL);
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_FULL) == PACKBUF_RULE_NONE, "the defaults");
  l.head_bytes = view.head_length - 1;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_HEAD) == PACKBUF_RULE_H10, "head_bytes");
  l = packbuf_default_limits(), l.nodes = view.node_count - 1;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_HEAD) == PACKBUF_RULE_H10, "nodes");
  l = packbuf_default_limits(), l.buffers = view.buffer_count - 1;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_HEAD) == PACKBUF_RULE_H10, "buffers");
  l = packbuf_default_limits(), l.metadata = view.metadata_count - 1;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_HEAD) == PACKBUF_RULE_H10, "metadata");
  l = packbuf_default_limits(), l.rows = view.rows - 1;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_HEAD) == PACKBUF_RULE_H10, "rows");
  l = packbuf_default_limits(), l.depth = 2;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_HEAD) == PACKBUF_RULE_N3, "depth");
  l = packbuf_default_limits(), l.depth = UINT32_MAX;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_FULL) == PACKBUF_RULE_NONE, "any depth");
  l = packbuf_default_limits(), l.decoded_bytes = 4;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_FULL) == PACKBUF_RULE_D9, "decoded_bytes");
  packbuf_arena_init(&arena, NULL);
  l = packbuf_default_limits();
  for (l.decoded_bytes = 0; status == PACKBUF_LIMIT && l.decoded_bytes < 100000; l.decoded_bytes += 64) {
    (void)packbuf_open(&view, f.data, f.size, 0, &l, NULL);
    packbuf_arena_free(&arena);
    status = packbuf_read_row(&view, 0, &arena, &value, &error);
    if (status != PACKBUF_OK && (status != PACKBUF_LIMIT || error.rule != PACKBUF_RULE_D9)) break;
  }
  tap_ok(status == PACKBUF_OK && arena.used <= l.decoded_bytes && arena.limit == UINT64_MAX,
         "a row of %lu bytes is read once decoded_bytes allows it", (unsigned long)arena.used);
  free(f.data);
  f = load("valid/json.pbuf");
  l = packbuf_default_limits(), l.cell_bytes = 3;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_FULL) == PACKBUF_RULE_D9, "cell_bytes");
  l = packbuf_default_limits(), l.cell_depth = 1;
  tap_ok(rule_with(&f, &l, PACKBUF_LEVEL_FULL) == PACKBUF_RULE_D9, "cell_depth");
  packbuf_arena_free(&arena);
  free(f.data);
}

/* ---- what a stranger may write: packed buffers made by hand, record by record, whose checksums are right ---- */

typedef struct forged {
  uint8_t nodes[64 * 64], buffers[64 * 64], strings[64], *file;
  uint32_t node_count, buffer_count, fields, strings_length;
  size_t size;
} forged;

static uint8_t *forge_node(forged *f, uint32_t parent, uint32_t descendants, unsigned kind, unsigned codec,
                           uint32_t first_buffer, unsigned buffer_count) {
  uint8_t *record = f->nodes + 64 * f->node_count++;
  packbuf_i_store32(record, parent);
  packbuf_i_store32(record + 4, descendants);
  packbuf_i_store32(record + 16, first_buffer);
  packbuf_i_store16(record + 20, (uint16_t)buffer_count);
  record[22] = (uint8_t)kind;
  record[24] = (uint8_t)codec;
  if (codec > PACKBUF_CODEC_NULL) record[25] = PACKBUF_DTYPE_UINT, record[26] = 8, record[28] = 1;
  packbuf_i_store64(record + 48, 1);
  return record;
}

static uint8_t *forge_buffer(forged *f, uint32_t node, unsigned role, unsigned storage, unsigned bits, uint64_t count,
                             uint64_t start, uint64_t step) {
  uint8_t *record = f->buffers + 64 * f->buffer_count++;
  packbuf_i_store32(record, node);
  record[4] = (uint8_t)role;
  record[6] = (uint8_t)storage;
  record[8] = PACKBUF_DTYPE_UINT, record[9] = (uint8_t)bits, record[10] = 1;
  packbuf_i_store64(record + 16, count);
  packbuf_i_store64(record + 40, start);
  packbuf_i_store64(record + 48, step);
  return record;
}

/* One row; `data` bytes '1' behind the head, which every stored and alias record is made to name. Opens; the caller
 * frees f->file. */
static packbuf_status forge(forged *f, uint64_t data, const packbuf_limits *limits, packbuf_view *view) {
  static const uint8_t magic[8] = {0x89, 0x50, 0x42, 0x55, 0x46, 13, 10, 26};
  const uint64_t strings_at = 128 + 64 * (uint64_t)(f->node_count + f->buffer_count) + 4 * (uint64_t)f->fields,
                 head = (strings_at + f->strings_length + 63) / 64 * 64;
  uint8_t *p;
  f->size = (size_t)(head + data);
  p = f->file = (uint8_t *)calloc(1, f->size);
  memcpy(p, magic, 8);
  p[8] = 1, p[12] = 1, p[13] = 6;
  packbuf_i_store64(p + 24, f->size);
  packbuf_i_store64(p + 32, head);
  packbuf_i_store64(p + 48, 1);
  packbuf_i_store32(p + 64, f->node_count);
  packbuf_i_store32(p + 68, f->buffer_count);
  packbuf_i_store32(p + 76, f->fields);
  p[80] = 64, p[82] = 64, p[84] = 32, p[86] = 4;
  packbuf_i_store64(p + 88, f->strings_length);
  packbuf_i_store32(p + 96, f->fields);
  for (uint32_t i = 0; i < f->buffer_count; i++) {
    uint8_t *record = f->buffers + 64 * i;
    if (record[6] == PACKBUF_STORED || record[6] == PACKBUF_ALIAS)
      packbuf_i_store64(record + 24, head), packbuf_i_store64(record + 32, data);
  }
  memcpy(p + 128, f->nodes, 64 * f->node_count);
  memcpy(p + 128 + 64 * f->node_count, f->buffers, 64 * f->buffer_count);
  for (uint32_t i = 0; i < f->fields; i++) packbuf_i_store32(p + strings_at - 4 * (f->fields - i), i);
  memcpy(p + strings_at, f->strings, f->strings_length);
  memset(p + head, '1', (size_t)data);
  packbuf_i_store32(p + 60, packbuf_i_crc_kernel_best()->crc(0, p, (size_t)head));
  return packbuf_open(view, p, f->size, 0, limits, NULL);
}

/* Subtrees that overlap: a walk that believed them would double its work with every pair. */
static void overlapping_nodes(void) {
  forged f;
  packbuf_view view;
  packbuf_arena arena;
  packbuf_value value;
  packbuf_error error;
  packbuf_node node;
  packbuf_status opened, status;
  memset(&f, 0, sizeof f);
  packbuf_arena_init(&arena, NULL);
  for (uint32_t i = 0; i < 60; i += 2) {
    forge_node(&f, PACKBUF_NO_NODE, 1, PACKBUF_NODE_DICT, 0, 0, 0);
    forge_node(&f, PACKBUF_NO_NODE, 58 - i, PACKBUF_NODE_DICT, 0, 0, 0);
  }
  f.fields = 60;
  opened = forge(&f, 0, NULL, &view);
  status = packbuf_read_row(&view, 0, &arena, &value, &error);
  tap_ok(opened == PACKBUF_OK && status == PACKBUF_BAD_NODE && error.rule == PACKBUF_RULE_N2 && arena.used < 100000,
         "a child of another parent is refused when it is read: %s", packbuf_status_name(status));
  free(f.file);
  memset(&f, 0, sizeof f);
  forge_node(&f, PACKBUF_NO_NODE, 1, PACKBUF_NODE_LIST, 0, 0, 1);
  forge_node(&f, 0, 1, PACKBUF_LEAF, PACKBUF_CODEC_NULL, 0, 0);
  forge_node(&f, 0, 0, PACKBUF_LEAF, PACKBUF_CODEC_NULL, 0, 0);
  forge_buffer(&f, 0, PACKBUF_ROLE_LENGTHS, PACKBUF_CONSTANT, 64, 1, 1, 0);
  f.fields = 1;
  opened = forge(&f, 0, NULL, &view);
  status = packbuf_read_cell(&view, 0, 0, &arena, &value, &error);
  tap_ok(opened == PACKBUF_OK && status == PACKBUF_BAD_NODE && error.rule == PACKBUF_RULE_N2 &&
             error.offset == 128 + 64 + 4,
         "and so is one that ends behind its parent: %s", packbuf_status_name(status));
  tap_ok(packbuf_find(&view, 0, "[0]", &node, NULL) == PACKBUF_OK && node.index == 1 &&
             packbuf_find(&view, 0, "[1]", &node, NULL) == PACKBUF_NOT_FOUND,
         "items are looked for within the list");
  packbuf_arena_free(&arena);
  free(f.file);
}

/* Nodes that claim the records of another, and records out of order. */
static void borrowed_buffers(void) {
  forged f;
  packbuf_view view;
  packbuf_column column;
  packbuf_buffer buffer;
  packbuf_node node;
  packbuf_error error;
  packbuf_status opened, status;
  memset(&f, 0, sizeof f);
  forge_node(&f, PACKBUF_NO_NODE, 0, PACKBUF_LEAF, PACKBUF_CODEC_NULL, 0, 2);
  forge_node(&f, PACKBUF_NO_NODE, 0, PACKBUF_LEAF, PACKBUF_CODEC_NULL, 0, 2);
  forge_buffer(&f, 0, PACKBUF_ROLE_MISSING, PACKBUF_CONSTANT, 1, 1, 0, 0);
  forge_buffer(&f, 0, PACKBUF_ROLE_MISSING, PACKBUF_CONSTANT, 1, 1, 0, 0);
  f.fields = 2;
  opened = forge(&f, 0, NULL, &view);
  status = packbuf_open_column(&view, 1, &column, &error);
  tap_ok(opened == PACKBUF_OK && status == PACKBUF_BAD_BUFFER && error.rule == PACKBUF_RULE_B1 &&
             error.offset == 128 + 128,
         "a record of another node is refused: %s", packbuf_status_name(status));
  status = packbuf_open_column(&view, 0, &column, &error);
  tap_ok(status == PACKBUF_BAD_BUFFER && error.rule == PACKBUF_RULE_B1 && error.offset == 128 + 128 + 64 + 4,
         "a role that comes twice, too: %s", packbuf_status_name(status));
  (void)packbuf_get_node(&view, 1, &node, NULL);
  tap_ok(packbuf_get_buffer(&view, &node, PACKBUF_ROLE_MISSING, 0, &buffer, &error) == PACKBUF_BAD_BUFFER &&
             error.rule == PACKBUF_RULE_B1,
         "packbuf_get_buffer refuses it");
  free(f.file);
}

/* Three fields of the same 64 bytes: two aliases, which verification walks again. */
static void charged_aliases(void) {
  forged f;
  packbuf_limits l = packbuf_default_limits();
  packbuf_view view;
  packbuf_error error;
  packbuf_status opened, status;
  memset(&f, 0, sizeof f);
  memcpy(f.strings, "abc", 3);
  f.strings_length = f.fields = 3;
  for (uint32_t i = 0; i < 3; i++) {
    uint8_t *record = forge_node(&f, PACKBUF_NO_NODE, 0, PACKBUF_LEAF, PACKBUF_CODEC_JSON_RAGGED, 2 * i, 2);
    packbuf_i_store32(record + 8, i);
    packbuf_i_store32(record + 12, 1);
    packbuf_i_store32(record + 32, i + 1);
    packbuf_i_store32(record + 36, i + 1);
    forge_buffer(&f, i, PACKBUF_ROLE_DATA, i ? PACKBUF_ALIAS : PACKBUF_STORED, 8, 64, 0, 0);
    forge_buffer(&f, i, PACKBUF_ROLE_OFFSETS, PACKBUF_SEQUENCE, 64, 2, 0, 64);
  }
  l.decoded_bytes = 128;
  opened = forge(&f, 64, &l, &view);
  memset(&error, 0, sizeof error);
  status = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
  tap_ok(opened == PACKBUF_OK && status == PACKBUF_OK,
         "two aliases of 64 bytes are within a limit of 128: %s, rule %d at %lu", packbuf_status_name(status),
         (int)error.rule, (unsigned long)error.offset);
  view.limits.decoded_bytes = 127;
  status = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
  tap_ok(status == PACKBUF_LIMIT && error.rule == PACKBUF_RULE_D9 && error.offset == 128 + 3 * 64 + 4 * 64 + 16,
         "and not of 127: %s at %lu", packbuf_status_name(status), (unsigned long)error.offset);
  free(f.file);
}

/* An attribute that comes twice: the first counts, and is opened once; one whose buffers lie is refused. */
static void repeated_attributes(void) {
  static const unsigned bytes[3] = {'d', 'x', 'y'};
  forged f;
  packbuf_view view;
  packbuf_arena arena;
  packbuf_value value;
  packbuf_error error;
  packbuf_status opened, status;
  memset(&f, 0, sizeof f);
  packbuf_arena_init(&arena, NULL);
  memcpy(f.strings, "mime", 4);
  f.strings_length = 4, f.fields = 1;
  for (uint32_t i = 0; i < 3; i++) {
    uint8_t *record = forge_node(&f, i ? 0 : PACKBUF_NO_NODE, i ? 0 : 2, PACKBUF_LEAF,
                                 i ? PACKBUF_CODEC_UTF8_RAGGED : PACKBUF_CODEC_MEDIA_BYTES, 2 * i, 2);
    packbuf_i_store32(record + 12, 4);
    forge_buffer(&f, i, PACKBUF_ROLE_DATA, PACKBUF_INLINE, 8, 1, bytes[i], 0);
    forge_buffer(&f, i, PACKBUF_ROLE_OFFSETS, PACKBUF_SEQUENCE, 64, 2, 0, 1);
  }
  opened = forge(&f, 0, NULL, &view);
  status = packbuf_read_cell(&view, 0, 0, &arena, &value, &error);
  tap_ok(opened == PACKBUF_OK && status == PACKBUF_OK && value.kind == PACKBUF_MEDIA &&
             value.as.media->mime_size == 1 && value.as.media->mime[0] == 'x',
         "the first of two equal attributes counts: %s", packbuf_status_name(status));
  free(f.file);
  packbuf_i_store32(f.nodes + 64 * 2, 1);
  opened = forge(&f, 0, NULL, &view);
  status = packbuf_read_cell(&view, 0, 0, &arena, &value, &error);
  tap_ok(opened == PACKBUF_OK && status == PACKBUF_BAD_NODE && error.rule == PACKBUF_RULE_N2,
         "an attribute of another node is refused: %s", packbuf_status_name(status));
  packbuf_arena_free(&arena);
  free(f.file);
}

static void *exactly(const void *text, size_t size) {
  void *copy = malloc(size);
  memcpy(copy, text, size);
  return copy;
}

/* What was checked and then changed, as the code that comes after the check sees it: on memory of just its size, for
 * the sanitizers. */
static void changed_after_check(void) {
  static const char *const strings[] = {"\"ab", "\"\\", "\"a\\x", "\"\\u00", "\"\\ud800\\", "\"\\ud800x"};
  static const char *const keys[] = {"\xDB",     "\xDB\xFF\xFF\xFF\xFF",     "\xD9\x7F", "\xBF", "\xC1", "\xC7\x05",
                                     "\xCF\x01", "\xC9\xFF\xFF\xFF\xFF\x01", "\x81"};
  packbuf_i_leaf_cells *cells = (packbuf_i_leaf_cells *)calloc(1, sizeof *cells);
  packbuf_i_reader reader;
  packbuf_error error;
  packbuf_column c, up;
  packbuf_view view;
  packbuf_status unreadable;
  const void *out;
  uint8_t data[4] = {0};
  int ended = 1, ordered = 1;
  unsigned compared = 0;
  for (unsigned i = 0; i < sizeof strings / sizeof *strings; i++) {
    const size_t size = strlen(strings[i]);
    uint8_t *text = (uint8_t *)exactly(strings[i], size);
    packbuf_i_json_bytes bytes;
    unsigned taken = 0;
    packbuf_i_json_bytes_start(&bytes, text, size, 0);
    while (taken < 100 && packbuf_i_json_bytes_next(&bytes) >= 0) taken++;
    ended &= taken < size && packbuf_i_json_bytes_next(&bytes) == -1;
    free(text);
  }
  tap_ok(ended, "a JSON string that lost its end ends with the text");
  for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++) {
    packbuf_i_msgpack mp;
    uint8_t *text;
    memset(&mp, 0, sizeof mp);
    mp.size = strlen(keys[i]);
    mp.data = text = (uint8_t *)exactly(keys[i], (size_t)mp.size);
    ordered &= packbuf_i_msgpack_key_order(&mp, 0, 0) == 0 && packbuf_i_msgpack_key_again(&mp, 0).as.text.size == 0;
    free(text);
  }
  tap_ok(ordered, "a MessagePack key that became longer than the data is empty");
  memset(&c, 0, sizeof c);
  reader.error = &error, cells->reader = &reader, cells->column = &c;
  c.data.bytes = data, c.data.count = 4, c.data.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  c.view = &view;
  memset(&view, 0, sizeof view);
  tap_ok(packbuf_i_elements(cells, 1, 3, &out) == PACKBUF_OK &&
             packbuf_i_elements(cells, 2, 3, &out) == PACKBUF_BAD_BUFFER &&
             packbuf_i_elements(cells, UINT64_MAX, 2, &out) == PACKBUF_BAD_BUFFER,
         "elements beyond the end are not handed out");
  free(cells);
  memset(&c, 0, sizeof c);
  c.view = &view, c.node.kind = PACKBUF_LEAF, c.node.codec = PACKBUF_CODEC_JSON_RAGGED, c.node.rows = UINT64_C(1) << 50;
  c.data.storage = PACKBUF_STORED, c.data.bytes = data, c.data.count = 4;
  c.offsets.storage = PACKBUF_SEQUENCE, c.offsets.count = c.node.rows + 1,
  c.offsets.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64);
  tap_ok(packbuf_i_text_data(&c, &error) == PACKBUF_BAD_JSON,
         "2^50 empty cells of a sequence that does not move are not counted out");
  {
    const file f = load("valid/everything_stored.pbuf");
    (void)packbuf_open(&view, f.data, f.size, 0, NULL, NULL);
    for (uint32_t i = 0; i < view.node_count; i++) {
      packbuf_i_verifier v;
      packbuf_i_verify_node up_node;
      if (packbuf_i_load_column(&view, i, &c, &unreadable, NULL) != PACKBUF_OK || c.node.parent == PACKBUF_NO_NODE)
        continue;
      if (packbuf_i_load_column(&view, c.node.parent, &up, &unreadable, NULL) != PACKBUF_OK ||
          up.node.kind == PACKBUF_LEAF || !packbuf_i_there(&up.validity))
        continue;
      memset(&up_node, 0, sizeof up_node);
      up_node.index = up.node.index, up_node.kind = (uint8_t)up.node.kind, up_node.masked = 1;
      v.view = &view, v.error = &error;
      c.node.rows = UINT64_C(1) << 50;
      compared += packbuf_i_verify_child(&v, &c, &up_node) == PACKBUF_BAD_NODE && error.rule == PACKBUF_RULE_N9 &&
                  error.offset == packbuf_i_node_at(&view, i) + 48;
    }
    free(f.data);
  }
  tap_ok(compared > 0, "rows that differ from the parent's are refused (%u nodes)", compared);
}

/* Reads all rows and batch values; the i-th allocation fails for every i, then with fixed arenas of every size. */
static void out_of_memory(const char *name) {
  const file f = load(name);
  packbuf_view view;
  packbuf_value *rows, value;
  packbuf_status status = PACKBUF_OUT_OF_MEMORY;
  unsigned failures = 0;
  uint8_t *memory = (uint8_t *)malloc(1 << 18);
  size_t size = 0;
  int good;
  if (!tap_ok(packbuf_open(&view, f.data, f.size, 0, NULL, NULL) == PACKBUF_OK, "%s opens", name)) return;
  rows = (packbuf_value *)malloc((size_t)view.rows * sizeof *rows + 1);
  for (unsigned i = 0; status == PACKBUF_OUT_OF_MEMORY && i < 10000; i++) {
    failing allocations = failing_at(i, 1);
    packbuf_allocator allocator = failing_allocator(&allocations);
    packbuf_arena arena;
    packbuf_error error;
    packbuf_arena_init(&arena, &allocator);
    status = packbuf_read_rows(&view, 0, view.rows, &arena, rows, &error);
    if (status == PACKBUF_OK) status = packbuf_read_batch_values(&view, &arena, &value, &error);
    if (status == PACKBUF_OUT_OF_MEMORY) failures++;
    packbuf_arena_free(&arena);
  }
  tap_ok(status == PACKBUF_OK && failures > 0, "%s: %u allocations fail one by one", name, failures);
  status = PACKBUF_OUT_OF_MEMORY;
  for (good = 1; good && status == PACKBUF_OUT_OF_MEMORY && size < 1 << 18; size += 8) {
    packbuf_arena arena;
    packbuf_arena_init_fixed(&arena, memory, size);
    status = packbuf_read_rows(&view, 0, view.rows, &arena, rows, NULL);
    good = status == PACKBUF_OUT_OF_MEMORY || status == PACKBUF_OK;
  }
  tap_ok(status == PACKBUF_OK, "%s: fixed arenas up to %lu bytes", name, (unsigned long)size);
  free(memory);
  free(rows);
  free(f.data);
}

/* Every vector between two pages that cannot be touched: flush with the one behind, then with the one before. */
static void guard_pages(const char *folder) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char path[1024];
  struct dirent *entry;
  DIR *directory;
  unsigned count = 0;
  snprintf(path, sizeof path, "%s/%s", root, folder);
  directory = opendir(path);
  while (directory && (entry = readdir(directory)) != NULL) {
    const size_t length = strlen(entry->d_name);
    file f;
    size_t room;
    uint8_t *memory;
    if (length < 5 || strcmp(entry->d_name + length - 5, ".pbuf") != 0) continue;
    snprintf(path, sizeof path, "%s/%.200s", folder, entry->d_name);
    f = load(path);
    room = (f.size + page - 1) / page * page;
    memory = (uint8_t *)mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if ((void *)memory != MAP_FAILED && (room == 0 || mprotect(memory + page, room, PROT_READ | PROT_WRITE) == 0)) {
      packbuf_status status;
      memcpy(memory + page + room - f.size, f.data, f.size);
      free(everything(memory + page + room - f.size, f.size, &status));
      memmove(memory + page, memory + page + room - f.size, f.size);
      free(everything(memory + page, f.size, &status));
      count++;
    }
    munmap(memory, room + 2 * page);
    free(f.data);
  }
  if (directory) closedir(directory);
  tap_ok(count > 0, "%u vectors of %s between guard pages", count, folder);
}

typedef struct vandal {
  uint8_t *data;
  size_t size;
  volatile int stop;
  uint32_t seed;
} vandal;

/* Rewrites bytes and puts them back, so that the buffer is whole about half of the time. Races on purpose. */
#if defined(__clang__) || defined(__GNUC__)
__attribute__((no_sanitize("thread")))
#endif
static void *vandalise(void *argument) {
  vandal *v = (vandal *)argument;
  uint32_t random = v->seed;
  while (!v->stop) {
    volatile uint8_t *byte;
    uint8_t kept;
    random = random * 1664525u + 1013904223u;
    byte = v->data + (random >> 8) % v->size;
    kept = *byte;
    random = random * 1664525u + 1013904223u;
    *byte = (uint8_t)(random >> 24);
    for (volatile int i = 0; i < (int)(random >> 16 & 1023); i++) continue;
    *byte = kept;
  }
  return NULL;
}

/* Reads through views that were opened before the bytes changed, too. */
static void rewritten_meanwhile(const char *name, double seconds) {
  const file f = load(name);
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (f.size + page - 1) / page * page;
  uint8_t *memory = (uint8_t *)mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint8_t *data = memory + page + room - f.size;
  const time_t start = time(NULL);
  const clock_t begin = clock();
  unsigned rounds = 0, whole = 0;
  packbuf_view before;
  pthread_t thread;
  vandal v;
  if (f.size == 0 || (void *)memory == MAP_FAILED || mprotect(memory + page, room, PROT_READ | PROT_WRITE) != 0) {
    tap_ok(0, "%s: no memory", name);
    return;
  }
  memcpy(data, f.data, f.size);
  (void)packbuf_open(&before, data, f.size, 0, NULL, NULL);
  v.data = data, v.size = f.size, v.stop = 0, v.seed = 12345;
  if (pthread_create(&thread, NULL, vandalise, &v) != 0) return;
  while ((double)(clock() - begin) / CLOCKS_PER_SEC < seconds && time(NULL) - start < 10) {
    packbuf_arena arena;
    packbuf_error error;
    packbuf_status status;
    tagged_text text = {NULL, 0, 0, 0};
    packbuf_arena_init(&arena, NULL);
    arena.limit = 1 << 22;
    free(everything(data, f.size, &status));
    (void)packbuf_verify(&before, PACKBUF_LEVEL_FULL, &error);
    whole += tagged_batch(&text, &before, &arena, &error) == PACKBUF_OK;
    for (uint32_t i = 0; i < before.node_count; i++) {
      packbuf_value values[16];
      if (before.rows <= 16) (void)packbuf_read_column(&before, i, 0, before.rows, &arena, values, &error);
    }
    packbuf_arena_free(&arena);
    free(text.data);
    rounds++;
  }
  v.stop = 1;
  pthread_join(thread, NULL);
  munmap(memory, room + 2 * page);
  tap_ok(rounds > 0, "%s rewritten meanwhile: %u rounds, %u of them read whole", name, rounds, whole);
  free(f.data);
}

int main(int argc, char **argv) {
  if (argc > 1) root = argv[1];
  any_address();
  capacity();
  paths();
  ranges();
  computed();
  limits();
  overlapping_nodes();
  borrowed_buffers();
  charged_aliases();
  repeated_attributes();
  changed_after_check();
  out_of_memory("valid/everything_stored.pbuf");
  out_of_memory("valid/media_lists.pbuf");
  out_of_memory("valid/json.pbuf");
  out_of_memory("valid/msgpack.pbuf");
  out_of_memory("valid/nested_number_lists.pbuf");
  out_of_memory("valid/constants.pbuf");
  guard_pages("valid");
  guard_pages("invalid");
  rewritten_meanwhile("valid/everything_stored.pbuf", 0.7);
  rewritten_meanwhile("valid/everything_canonical.pbuf", 0.3);
  rewritten_meanwhile("valid/json.pbuf", 0.3);
  rewritten_meanwhile("valid/msgpack.pbuf", 0.3);
  return tap_plan_done();
}
