/* tests/repeats.c: the search for equal rows when somebody has made rows whose keys fall in one place: it gives up
 * early, begins again with better keys, and still finds every repeat; the search for equal buffers when many begin
 * alike.
 * May use: internals.h. Must not know: what becomes of repeats. */
#include "internals.h"
#include "tap.h"
#include <stdlib.h>

enum { ROWS = 6000, WORDS = 16 };

static uint64_t seed = 88172645463325252u;

static uint64_t random64(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed * 0x2545F4914F6CDD1Du;
}

/* The number that an odd one gives 1 with. */
static uint64_t inverse(uint64_t odd) {
  uint64_t x = odd;
  for (int i = 0; i < 6; i++) x *= 2 - odd * x;
  return x;
}

/* The second word of packbuf_i_hash_word(first, .) that gives `hash`. */
static uint64_t unhash(uint64_t hash, uint64_t first) {
  return (hash ^ hash >> 32) * inverse(0x9E3779B97F4A7C15u) ^ first;
}

/* A row of 128 bytes whose cheap key is i << 36: the last step of each chain is undone. */
static void craft(uint64_t i, uint8_t *row) {
  const uint64_t a = 0x9E3779B97F4A7C15u, b = 0xFF51AFD7ED558CCDu;
  uint64_t key = 1, other = ~(uint64_t)1, end, other_end = 0x1234567;
  for (unsigned k = 0; k < WORDS; k++) packbuf_i_store64(row + 8 * k, k < 8 ? k : random64());
  for (unsigned k = 8; k < 14; k += 2) {
    key = (key ^ packbuf_i_load64(row + 8 * k)) * a, other = (other ^ packbuf_i_load64(row + 8 * k + 8)) * b;
    key ^= key >> 32, other ^= other >> 32;
  }
  end = unhash(unhash(unhash(i << 36, packbuf_i_hash_word(8 * WORDS, 0)), packbuf_i_hash_64_bytes(0, row)), other_end);
  packbuf_i_store64(row + 112, ((end ^ end >> 32) * inverse(a)) ^ key);
  packbuf_i_store64(row + 120, ((other_end ^ other_end >> 32) * inverse(b)) ^ other);
}

static uint8_t (*rows)[8 * WORDS];
static packbuf_text texts[ROWS];

/* Every third row is an earlier one again, one always the same, one any. */
static void make_rows(void) {
  for (uint64_t i = 0; i < ROWS; i++) {
    if (i % 3 == 0) craft(i + 1, rows[i]);
    else memcpy(rows[i], rows[i % 3 == 1 ? 0 : random64() % (i / 3 + 1) * 3], sizeof *rows);
    texts[i].data = (const char *)rows[i];
    texts[i].size = sizeof *rows;
  }
}

/* One search for the crafted rows under keys of one kind: how many it takes before it gives up. */
static unsigned search(packbuf_i_row_keys kind, const packbuf_i_node *node, uint64_t *words,
                       packbuf_i_row_table *table) {
  packbuf_i_some_rows some;
  uint64_t keys[PACKBUF_I_ROWS_AT_ONCE], next = 0;
  unsigned taken = 0;
  table->keys = words, table->rows = words + 16384, table->mask = 16383;
  packbuf_i_row_table_clear(table, kind);
  while (next < ROWS) {
    packbuf_i_next_rows(node, &next, &some);
    packbuf_i_keys_of(table, node, &some, keys);
    for (unsigned i = 0; i < some.count; i++, taken++)
      if (packbuf_i_row_first(table, node, some.rows[i], some.sizes[i], keys[i]) == PACKBUF_I_NO_ROW) return taken;
  }
  return taken;
}

static void test_kinds(void) {
  uint64_t *words = (uint64_t *)malloc(2 * 16384 * sizeof *words);
  packbuf_i_row_table table;
  packbuf_i_node node;
  if (!words) return;
  memset(&node, 0, sizeof node);
  node.source = PACKBUF_I_FROM_TEXT, node.texts = texts, node.rows = ROWS;
  node.codec = PACKBUF_CODEC_BYTES_RAGGED, node.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  tap_ok(search(PACKBUF_I_KEYS_CHEAP, &node, words, &table) < ROWS && table.wasted < table.asked,
         "a search with keys that fall in one place gives up, with little work done");
  tap_ok(search(PACKBUF_I_KEYS_FULL, &node, words, &table) == ROWS && table.wasted < table.asked / 8,
         "with full keys it comes to the end");
  tap_ok(search(PACKBUF_I_KEYS_STRONG, &node, words, &table) == ROWS, "and with strong ones");
  free(words);
}

static void test_repeats(void) {
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_view view;
  packbuf_node node;
  packbuf_column column;
  void *packed = NULL;
  uint64_t size = 0;
  int same = 1, stored_once = 1;
  packbuf_arena_init(&arena, NULL);
  memset(&error, 0, sizeof error);
  if (!tap_ok(!packbuf_batch_init(&batch, ROWS, &arena, NULL, &error) &&
                  !packbuf_add_bytes(&batch, "x", texts, &error) && !packbuf_pack(&batch, &packed, &size, &error) &&
                  !packbuf_open(&view, packed, size, PACKBUF_OPEN_EXACT, NULL, &error) &&
                  !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) && !packbuf_find(&view, 0, "x", &node, &error) &&
                  !packbuf_open_column(&view, node.index, &column, &error),
              "crafted rows pack: %s", error.message ? error.message : ""))
    return;
  for (uint64_t i = 0; i < ROWS; i++) {
    const void *bytes = NULL;
    uint64_t length = 0, stored = 0;
    if (packbuf_cell_bytes(&column, i, &bytes, &length, &error) || length != sizeof *rows ||
        memcmp(bytes, rows[i], sizeof *rows) != 0)
      same = 0;
    if (packbuf_stored_row(&column, i, &stored, &error) || stored > i / 3 || (i % 3 == 1 && stored != 0))
      stored_once = 0;
  }
  tap_ok(same, "and come back");
  tap_ok(stored_once && size < ROWS / 3 * sizeof *rows + ROWS * 9 + 4096, "each repeat of them is found");
  packbuf_arena_free(&arena);
}

/* Rows that differ inside alone: 64-bit numbers, zeros with a stretch of ones. */
enum { MASKS = 200, WIDE = 96 };
static uint64_t masks[MASKS][WIDE];

static void make_masks(void) {
  for (unsigned i = 0; i < MASKS; i++) {
    const unsigned begin = 8 + (unsigned)(random64() % 8), end = WIDE - 8 - (unsigned)(random64() % 8);
    for (unsigned k = 0; k < WIDE; k++) masks[i][k] = k >= begin && k < end;
  }
}

/* Whatever the keys: a search that comes to its end has found the first of equal rows. */
static void test_first_rows(void) {
  static const uint64_t shape[2] = {MASKS, WIDE};
  const packbuf_tensor tensor = {masks, {PACKBUF_DTYPE_INT, 64, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
  uint64_t words[1024], keys[PACKBUF_I_ROWS_AT_ONCE];
  packbuf_i_node node;
  memset(&node, 0, sizeof node);
  node.source = PACKBUF_I_FROM_TENSOR, node.tensors = &tensor, node.rows = MASKS;
  node.codec = PACKBUF_CODEC_NDARRAY, node.dtype = tensor.dtype, node.rank = 1, node.shape[0] = WIDE;
  for (packbuf_i_row_keys kind = PACKBUF_I_KEYS_CHEAP; kind <= PACKBUF_I_KEYS_STRONG;
       kind = (packbuf_i_row_keys)(kind + 1)) {
    packbuf_i_row_table table = {words, words + 512, 511, kind, 0, 0};
    packbuf_i_some_rows some;
    uint64_t next = 0;
    int given_up = 0, right = 1;
    packbuf_i_row_table_clear(&table, kind);
    while (next < MASKS && !given_up) {
      packbuf_i_next_rows(&node, &next, &some);
      packbuf_i_keys_of(&table, &node, &some, keys);
      for (unsigned i = 0; i < some.count && !given_up; i++) {
        const uint64_t first = packbuf_i_row_first(&table, &node, some.rows[i], some.sizes[i], keys[i]);
        uint64_t true_first = 0;
        while (memcmp(masks[true_first], masks[some.rows[i]], sizeof *masks) != 0) true_first++;
        given_up = first == PACKBUF_I_NO_ROW;
        right = right && (given_up || first == true_first);
      }
    }
    tap_ok(right && given_up == (kind < PACKBUF_I_KEYS_FULL), "masks, keys of kind %d: %s", (int)kind,
           given_up ? "given up" : "the first of equal rows");
  }
}

/* By each way to compare that this processor has. */
static void test_common(const char *name, packbuf_i_comparer common) {
  static uint8_t a[6000], b[6000];
  int right = 1;
  for (unsigned i = 0; i < sizeof a; i++) a[i] = b[i] = (uint8_t)random64();
  for (unsigned offset = 0; offset < 3; offset++)
    for (unsigned size = 0; size <= 300; size++)
      for (unsigned at = 0; at <= size; at++) { /* and what follows does not count */
        b[offset + at] ^= 0x40, b[offset + size] ^= 0x80;
        right = right && common(a + offset, b + offset, size) == at;
        b[offset + at] ^= 0x40, b[offset + size] ^= 0x80;
      }
  for (unsigned at = 0; at <= 5000; at += 7) {
    b[at] ^= 1, b[at + 90] ^= 1;
    right = right && common(a, b, 5000) == (at < 5000 ? at : 5000) && common(a, b, at) == at;
    b[at] ^= 1, b[at + 90] ^= 1;
  }
  tap_ok(right, "%s: the first byte that differs is found, wherever it is", name);
}

/* Columns whose first 9000 numbers are windows into zeros before a 1: all begin alike. After a few that were compared
 * with all before, each has a print of the whole. */
static void test_long_alike(void) {
  enum { COLUMNS = 300, FEW = 8 };
  static int64_t numbers[9000 + COLUMNS];
  static char names[COLUMNS][8];
  const uint64_t shape = 9000;
  packbuf_tensor tensor;
  packbuf_arena arena;
  packbuf_batch batch;
  uint64_t size = 0;
  unsigned whole = 0;
  int added = 1;
  numbers[8999] = 1;
  memset(&tensor, 0, sizeof tensor);
  tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), tensor.rank = 1, tensor.shape = &shape;
  packbuf_arena_init(&arena, NULL);
  added = packbuf_batch_init(&batch, shape, &arena, NULL, NULL) == PACKBUF_OK;
  for (unsigned i = 0; i < COLUMNS; i++) {
    tensor.data = numbers + i;
    (void)snprintf(names[i], sizeof names[i], "c%u", i);
    added = added && packbuf_add_tensor(&batch, names[i], &tensor, NULL, NULL) == PACKBUF_OK;
  }
  added = added && packbuf_measure(&batch, &size, NULL) == PACKBUF_OK;
  for (uint32_t i = 0; added && i < batch.plan->buffer_count; i++) whole += batch.plan->buffers[i].has_whole != 0;
  tap_ok(whole >= COLUMNS - FEW && size > (uint64_t)COLUMNS * 9000 * 8,
         "buffers that begin alike are told apart by a print of the whole: %u of %d", whole, COLUMNS);
  packbuf_arena_free(&arena);
}

int main(void) {
  rows = (uint8_t(*)[8 * WORDS])malloc(ROWS * sizeof *rows);
  if (!rows) return 1;
  make_rows();
  {
    const uint64_t key = packbuf_i_hash_word(8 * WORDS, 0);
    int all = 1;
    for (uint64_t i = 0; i < ROWS; i += 3)
      all = all && packbuf_i_hash_ends(key, sizeof *rows, rows[i], rows[i] + sizeof *rows - 64) == (i + 1) << 36;
    tap_ok(all, "rows are crafted: their keys fall in one place");
  }
  make_masks();
  test_common("plain", packbuf_i_common_plain);
#if PACKBUF_I_X86
  if (packbuf_i_cpu_has(PACKBUF_I_CPU_AVX2)) test_common("avx2", packbuf_i_common_avx2);
  else tap_skip("no AVX2");
#endif
  test_common("the one that is chosen", packbuf_i_common);
  test_kinds();
  test_first_rows();
  test_repeats();
  test_long_alike();
  free(rows);
  return tap_plan_done();
}
