/* Columns below dicts and lists that few rows have, which are kept otherwise than those of many: their buffers are,
 * element for element, those of the same cells as a field of its own, whatever pattern of rows has them, and every way
 * of writing gives the same bytes. */
#include "../packbuf.h"
#include "trips.h"

enum { FIRST, LAST, FIFTHS, WORDS, TENTH, NONE, HALF, PATTERNS };
static const char *const pattern_names[PATTERNS] = {"the first row",  "the last row", "every fifth row", "runs of rows",
                                                    "a tenth of them", "no row",       "half of them"};

static int row_has(unsigned pattern, uint64_t row, uint64_t rows) {
  switch (pattern) {
    case FIRST: return row == 0;
    case LAST: return row == rows - 1;
    case FIFTHS: return row % 5 == 3;
    case WORDS: return row / 64 % 5 == 2 || row % 257 == 255;
    case TENTH: return mv_below(10) == 0;
    case HALF: return row % 2 == 0;
    default: return 0;
  }
}

enum { INTS, MIXED, TEXTS, BYTES, LISTS, NESTS, JSON, MSGPACK, ARRAYS, MEDIA, KINDS };
static const char *const kind_names[KINDS] = {"integers", "numbers of three types", "texts",       "bytes",  "lists",
                                              "nests",    "JSON",                   "MessagePack", "arrays", "media"};

/* One value of a kind, in memory of the arena. */
static packbuf_value value_of(unsigned kind, packbuf_arena *arena) {
  const unsigned n = 1 + mv_below(3);
  char *text = (char *)packbuf_arena_alloc(arena, 16, 1);
  packbuf_value *items = (packbuf_value *)packbuf_arena_alloc(arena, 3 * sizeof *items, 8);
  packbuf_entry *entry = (packbuf_entry *)packbuf_arena_alloc(arena, sizeof *entry, 8);
  packbuf_tensor *tensor = (packbuf_tensor *)packbuf_arena_alloc(arena, sizeof *tensor, 8);
  packbuf_media *media = (packbuf_media *)packbuf_arena_alloc(arena, sizeof *media, 8);
  const int size = snprintf(text, 16, "text %u", mv_below(1000));
  static const uint64_t shapes[3] = {1, 2, 3};
  static const float elements[3] = {1.5f, -2.0f, 0.25f};
  for (unsigned i = 0; i < 3; i++) items[i] = packbuf_int((int64_t)mv_below(1000) - 500);
  switch (kind) {
    case INTS: return items[0];
    case MIXED: return n == 1 ? items[0] : n == 2 ? packbuf_float(0.5 * mv_below(99)) : packbuf_bool((int)mv_below(2));
    case TEXTS: return packbuf_string_n(text, (size_t)size);
    case BYTES: return packbuf_bytes(text, (size_t)size);
    case LISTS: return packbuf_list(items, n);
    case NESTS: items[0] = packbuf_list(items + 1, 2); return packbuf_list(items, 1);
    case JSON: return n == 1 ? packbuf_string_n(text, (size_t)size) : packbuf_list(items, n);
    case MSGPACK:
      entry->key = items[0];
      entry->value = packbuf_bytes(text, (size_t)size);
      return packbuf_dict(entry, 1);
    case ARRAYS:
      memset(tensor, 0, sizeof *tensor);
      tensor->data = elements;
      tensor->dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
      tensor->rank = 1;
      tensor->form = PACKBUF_FORM_ARRAY;
      tensor->shape = &shapes[n - 1];
      return packbuf_tensor_value(tensor);
    default:
      *media = packbuf_media_of(text, (size_t)size, n == 1 ? "image/png" : NULL);
      return packbuf_media_value(media);
  }
}

/* A batch of the cells as they are (cells[i] missing: the row does not have the key), or below a key of a dict, or as
 * the item of a list, where the rows without it are those whose dict or list is empty. */
enum { ALONE, IN_DICT, IN_LIST };

static const packbuf_value *rows_of(unsigned where, const packbuf_value *cells, uint64_t rows, packbuf_arena *arena) {
  packbuf_value *made = (packbuf_value *)packbuf_arena_alloc(arena, rows * sizeof *made, 8);
  for (uint64_t row = 0; row < rows; row++) {
    packbuf_entry *entries = (packbuf_entry *)packbuf_arena_alloc(arena, 2 * sizeof *entries, 8);
    packbuf_value *item = (packbuf_value *)packbuf_arena_alloc(arena, sizeof *item, 8);
    const size_t count = cells[row].kind != PACKBUF_MISSING;
    entries[0].key = packbuf_string("x");
    entries[0].value = cells[row];
    if (where != ALONE) {
      *item = where == IN_DICT ? packbuf_dict(entries, count) : packbuf_null();
      if (where == IN_LIST) { /* of a dict: lists of others do not expand */
        entries[1] = entries[0];
        *item = packbuf_dict(&entries[1], 1);
        *item = packbuf_list(count ? (packbuf_value *)memcpy(packbuf_arena_alloc(arena, sizeof *item, 8), item,
                                                              sizeof *item)
                                   : NULL,
                             count);
      }
      entries = (packbuf_entry *)packbuf_arena_alloc(arena, sizeof *entries, 8);
      entries[0].key = packbuf_string("top");
      entries[0].value = *item;
    }
    made[row] = packbuf_dict(entries, where == ALONE ? count : 1);
  }
  return made;
}

typedef struct packed {
  packbuf_batch batch;
  packbuf_view view;
  void *data;
  uint64_t size;
  uint32_t leaf;
} packed;

static int pack(packed *p, unsigned where, const packbuf_value *cells, uint64_t rows, packbuf_arena *arena) {
  static const char *const paths[] = {"x", "top.x", "top[0].x"};
  packbuf_error error;
  packbuf_node node;
  const packbuf_value *made = rows_of(where, cells, rows, arena);
  if (packbuf_batch_init(&p->batch, rows, arena, NULL, &error) || packbuf_add_rows(&p->batch, made, &error) ||
      packbuf_pack(&p->batch, &p->data, &p->size, &error) ||
      packbuf_open(&p->view, p->data, p->size, PACKBUF_OPEN_EXACT, NULL, &error) ||
      packbuf_verify(&p->view, PACKBUF_LEVEL_FULL, &error) || packbuf_find(&p->view, 0, paths[where], &node, &error))
    return tap_ok(0, "%s", mv_error(&error)), 0;
  p->leaf = node.index;
  for (uint64_t row = 0; row < rows; row++) {
    packbuf_value back;
    if (packbuf_read_row(&p->view, row, arena, &back, &error)) return tap_ok(0, "%s", mv_error(&error)), 0;
    if (!packbuf_equal(&back, &made[row])) return tap_ok(0, "row %u reads back equal", (unsigned)row), 0;
  }
  return 1;
}

/* Whether two leaves, and the attributes below them, have the same buffers. */
static int same_leaves(const packed *a, const packed *b, packbuf_arena *arena) {
  packbuf_node x, y;
  if (packbuf_get_node(&a->view, a->leaf, &x, NULL) || packbuf_get_node(&b->view, b->leaf, &y, NULL)) return 0;
  if (x.codec != y.codec || x.form != y.form || x.rank != y.rank || x.descendants != y.descendants) return 0;
  for (uint32_t n = 0; n <= x.descendants; n++) {
    if (packbuf_get_node(&a->view, a->leaf + n, &x, NULL) || packbuf_get_node(&b->view, b->leaf + n, &y, NULL))
      return 0;
    if (x.buffer_count != y.buffer_count) return 0;
    for (uint32_t i = 0; i < x.buffer_count; i++) {
      packbuf_buffer left, right;
      size_t room;
      void *one, *two;
      if (packbuf_get_buffer_at(&a->view, x.first_buffer + i, &left, NULL) ||
          packbuf_get_buffer_at(&b->view, y.first_buffer + i, &right, NULL))
        return 0;
      if (left.role != right.role || left.count != right.count) return 0;
      room = (size_t)left.count * 8 + 8;
      one = packbuf_arena_alloc(arena, room, 16);
      two = packbuf_arena_alloc(arena, room, 16);
      memset(one, 0, room);
      memset(two, 0, room);
      if (packbuf_copy_elements(&a->view, &left, 0, left.count, one, room, NULL) ||
          packbuf_copy_elements(&b->view, &right, 0, right.count, two, room, NULL) || memcmp(one, two, room) != 0)
        return 0;
    }
  }
  return 1;
}

/* The same bytes, written in parts. */
static int parts_agree(packed *p, packbuf_arena *arena) {
  uint8_t *dst = (uint8_t *)packbuf_arena_alloc(arena, (size_t)p->size, 64);
  uint32_t parts;
  uint64_t size;
  if (packbuf_write_split(&p->batch, 3, &parts, NULL)) return 0;
  memset(dst, 0xAA, (size_t)p->size);
  for (uint32_t part = parts; part-- > 0;)
    if (packbuf_write_part(&p->batch, part, dst, p->size, NULL)) return 0;
  return !packbuf_write_finish(&p->batch, dst, p->size, &size, NULL) && memcmp(dst, p->data, (size_t)p->size) == 0;
}

static void test_pattern(unsigned kind, unsigned pattern, uint64_t rows) {
  packbuf_arena arena;
  packbuf_value *cells;
  packed alone, dict, list;
  packbuf_arena_init(&arena, NULL);
  cells = (packbuf_value *)packbuf_arena_alloc(&arena, (size_t)rows * sizeof *cells, 8);
  for (uint64_t row = 0; row < rows; row++) {
    cells[row] = row_has(pattern, row, rows) ? value_of(kind, &arena) : packbuf_missing();
    if (rows > 5 && row % 61 == 60) cells[row] = packbuf_null();
  }
  cells[rows / 2] = packbuf_null(); /* or a field that no row has is no field */
  if (pack(&alone, ALONE, cells, rows, &arena) && pack(&dict, IN_DICT, cells, rows, &arena))
    tap_ok(same_leaves(&alone, &dict, &arena) && parts_agree(&dict, &arena), "%s in a dict, %s of %u", kind_names[kind],
           pattern_names[pattern], (unsigned)rows);
  if (pack(&list, IN_LIST, cells, rows, &arena))
    tap_ok(parts_agree(&list, &arena), "%s in a list, %s of %u", kind_names[kind], pattern_names[pattern],
           (unsigned)rows);
  packbuf_arena_free(&arena);
}

int main(void) {
  static const uint64_t counts[] = {4, 5, 64, 65, 129, 700, 5000};
  for (unsigned kind = 0; kind < KINDS; kind++)
    for (unsigned pattern = 0; pattern < PATTERNS; pattern++)
      test_pattern(kind, pattern, counts[(kind + pattern) % 7]);
  for (unsigned i = 0; i < 7; i++) test_pattern(TEXTS, TENTH, counts[i]);
  return tap_plan_done();
}
