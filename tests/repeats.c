/* tests/repeats.c: the search for equal rows when somebody has made rows whose keys fall in one place: it looks at few slots, and still finds every repeat.
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

/* A row of 128 bytes whose cheap key is i << 36: the last step of each chain is undone. */
static void craft(uint64_t i, uint8_t *row) {
  const uint64_t a = 0x9E3779B97F4A7C15u, b = 0xFF51AFD7ED558CCDu, hash = i << 36;
  uint64_t key, other, end, other_end = 0x1234567;
  for (unsigned k = 0; k < WORDS; k++) packbuf_i_store64(row + 8 * k, k < 8 ? k : random64());
  key = packbuf_i_hash_64_bytes(packbuf_i_hash_word(8 * WORDS, 0), row);
  other = ~key;
  for (unsigned k = 8; k < 14; k += 2) {
    key = (key ^ packbuf_i_load64(row + 8 * k)) * a, other = (other ^ packbuf_i_load64(row + 8 * k + 8)) * b;
    key ^= key >> 32, other ^= other >> 32;
  }
  end = (hash ^ hash >> 32) * inverse(a) ^ other_end;
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

static void test_probes(void) {
  uint64_t keys[256], others[256], slot, key = 7 << 2;
  packbuf_i_row_table table = {keys, others, 255};
  packbuf_i_node node;
  memset(&node, 0, sizeof node);
  memset(keys, 0xFF, sizeof keys);
  memset(others, 0, sizeof others);
  for (unsigned i = 0; i < PACKBUF_I_ROW_PROBES - 1; i++) others[7 + i] = 1;
  tap_ok(packbuf_i_row_search(&table, &node, 0, key, 1, PACKBUF_I_ROW_PROBES, &slot) == 0 && slot == 6 + PACKBUF_I_ROW_PROBES, "the last of the slots is taken");
  others[6 + PACKBUF_I_ROW_PROBES] = 1;
  tap_ok(packbuf_i_row_search(&table, &node, 0, key, 1, PACKBUF_I_ROW_PROBES, &slot) == -1, "there the search ends");
  tap_ok(packbuf_i_row_search(&table, &node, 0, key, 1, UINT64_MAX, &slot) == 0 && slot == 7 + PACKBUF_I_ROW_PROBES, "but under the strong key");
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
  if (!tap_ok(!packbuf_batch_init(&batch, ROWS, &arena, NULL, &error) && !packbuf_add_bytes(&batch, "x", texts, &error) && !packbuf_pack(&batch, &packed, &size, &error) &&
                  !packbuf_open(&view, packed, size, PACKBUF_OPEN_EXACT, NULL, &error) && !packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error) && !packbuf_find(&view, 0, "x", &node, &error) &&
                  !packbuf_open_column(&view, node.index, &column, &error),
              "crafted rows pack: %s", error.message ? error.message : ""))
    return;
  for (uint64_t i = 0; i < ROWS; i++) {
    const void *bytes = NULL;
    uint64_t length = 0, stored = 0;
    if (packbuf_cell_bytes(&column, i, &bytes, &length, &error) || length != sizeof *rows || memcmp(bytes, rows[i], sizeof *rows) != 0) same = 0;
    if (packbuf_stored_row(&column, i, &stored, &error) || stored > i / 3 || (i % 3 == 1 && stored != 0)) stored_once = 0;
  }
  tap_ok(same, "and come back");
  tap_ok(stored_once && size < ROWS / 3 * sizeof *rows + ROWS * 9 + 4096, "each repeat of them is found");
  packbuf_arena_free(&arena);
}

int main(void) {
  rows = (uint8_t(*)[8 * WORDS])malloc(ROWS * sizeof *rows);
  if (!rows) return 1;
  make_rows();
  {
    const uint64_t first = packbuf_i_hash_word(8 * WORDS, 0);
    int all = 1;
    for (uint64_t i = 0; i < ROWS; i += 3)
      all = all && packbuf_i_hash_ends(first, sizeof *rows, rows[i], rows[i] + sizeof *rows - 64) == (i + 1) << 36;
    tap_ok(all, "rows are crafted: their keys fall in one place");
  }
  test_probes();
  test_repeats();
  free(rows);
  return tap_plan_done();
}
