/* tests/vectors.c: the vectors of the spec (spec/vectors, or the folder given): valid ones open, pass, print as their
 * JSON and fail cleanly when cut or when a bit is flipped; invalid ones break exactly the rule that index.tsv names, at
 * its level and offset.
 * May use: packbuf.h, sealing.h, tagged.h, tap.h. Must not know: how the vectors were made. */
#ifdef PACKBUF_HEADER
#include "internals.h"
#else
#include "../packbuf.h"
#endif
#include "sealing.h"
#include "tagged.h"
#include "tap.h"
#include <dirent.h>

/* A file in an allocation of exactly its size, so that sanitizers see a read past its end. */
static uint8_t *load(const char *folder, const char *name, size_t *size) {
  char path[1024];
  uint8_t *data = NULL;
  FILE *file;
  long length;
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path || (file = fopen(path, "rb")) == NULL)
    return NULL;
  if (fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0) {
    data = (uint8_t *)malloc(length ? (size_t)length : 1);
    *size = (size_t)length;
    if (data && fread(data, 1, *size, file) != *size) free(data), data = NULL;
  }
  fclose(file);
  return data;
}

static packbuf_status check(const uint8_t *data, size_t size, packbuf_level level, packbuf_error *error) {
  packbuf_view view;
  const packbuf_status status = packbuf_open(&view, data, size, PACKBUF_OPEN_EXACT, NULL, error);
  return status != PACKBUF_OK ? status : packbuf_verify(&view, level, error);
}

/* Each field read as a column must print as its cells do one by one, and every cell of every node must be readable. */
static int columns_agree(const packbuf_view *view, packbuf_arena *arena) {
  packbuf_error error;
  int agree = 1;
  for (uint32_t i = 0; i < view->node_count && agree; i++) {
    packbuf_node node;
    packbuf_value *values;
    tagged_text one = {NULL, 0, 0, 0}, all = {NULL, 0, 0, 0};
    packbuf_status status;
    if (packbuf_get_node(view, i, &node, &error) != PACKBUF_OK) return 0;
    values = (packbuf_value *)malloc((size_t)(node.rows + 1) * sizeof *values);
    status = packbuf_read_column(view, i, 0, node.rows, arena, values, &error);
    if (status == PACKBUF_OK) {
      for (uint64_t row = 0; row < node.rows; row++) {
        tagged_value(&all, &values[row]);
        if (tagged_cell(&one, view, i, row, arena, &error) != PACKBUF_OK) agree = 0;
      }
      if (one.size != all.size || one.failed || all.failed || (one.size && memcmp(one.data, all.data, one.size) != 0))
        agree = 0;
    } else if (status < PACKBUF_UNSUPPORTED_VERSION) {
      agree = 0;
    }
    free(one.data);
    free(all.data);
    free(values);
  }
  return agree;
}

/* Where in the rows a byte of a buffer's elements or block headers stands, in proportion; 0 for other bytes. */
static uint64_t place_of(const packbuf_view *view, uint64_t byte) {
  for (uint32_t i = 0; i < view->buffer_count; i++) {
    packbuf_buffer b;
    if (packbuf_get_buffer_at(view, i, &b, NULL) != PACKBUF_OK) continue;
    for (unsigned k = 0; k < 2; k++) {
      const uint64_t length = k ? packbuf_block_count(&b) * 16 : b.length, at = byte - (k ? b.headers_at : b.offset);
      if (at < length) return view->rows / length * at + view->rows % length * at / length;
    }
  }
  return 0;
}

/* Reads everything; of many rows the first and the last ones, those at the place of a byte, and some from all over,
 * which are others for other bytes. */
static packbuf_status read_rows(tagged_text *text, const packbuf_view *view, uint64_t byte, packbuf_arena *arena,
                                packbuf_error *error) {
  const uint64_t many = view->rows, step = many / 64;
  tagged_rows rows[4] = {{0, 1, 32}, {many - 32, 1, 32}, {0, 1, 32}, {0, step, 64}};
  if (many <= 256) return tagged_batch(text, view, arena, error);
  rows[2].first = place_of(view, byte);
  rows[3].first = byte % step;
  return tagged_some(text, view, rows, 4, arena, error);
}

/* Prefixes, and flips of single bits: the outcome must be an error or a legal value, never a crash. Returns how many
 * flips passed full verification. */
static unsigned damage(const uint8_t *data, size_t size, unsigned *prefixes_passed) {
  uint8_t *copy = (uint8_t *)malloc(size);
  unsigned passed = 0;
  *prefixes_passed = 0;
  for (size_t i = 0; i < size; i++) {
    uint8_t *cut = (uint8_t *)malloc(i ? i : 1);
    if (cut == NULL) break;
    memcpy(cut, data, i);
    if (check(cut, i, PACKBUF_LEVEL_HEAD, NULL) == PACKBUF_OK) ++*prefixes_passed;
    free(cut);
  }
  memcpy(copy, data, size);
  for (size_t bit = 0; bit < size * 8; bit += TAP_STEP) {
    packbuf_arena arena;
    packbuf_view view;
    packbuf_error error;
    tagged_text text = {NULL, 0, 0, 0};
    copy[bit / 8] = (uint8_t)(copy[bit / 8] ^ 1u << bit % 8);
    packbuf_arena_init(&arena, NULL);
    if (packbuf_open(&view, copy, size, 0, NULL, &error) == PACKBUF_OK) {
      const packbuf_status full = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error),
                           read = read_rows(&text, &view, bit / 8, &arena, &error);
      if (full == PACKBUF_OK) {
        passed++;
        if (read != PACKBUF_OK || text.failed)
          tap_ok(0, "bit %lu: verified, and not readable: %s", (unsigned long)bit, error.message);
      }
    }
    free(text.data);
    packbuf_arena_free(&arena);
    copy[bit / 8] = (uint8_t)(copy[bit / 8] ^ 1u << bit % 8);
  }
  free(copy);
  return passed;
}

/* Like damage, with the checksums made right again: the rules themselves have to hold. */
static unsigned damage_sealed(const uint8_t *data, size_t size) {
  uint8_t *copy = (uint8_t *)malloc(size);
  unsigned passed = 0;
  for (size_t bit = 0; bit < size * 8; bit += TAP_STEP) {
    packbuf_arena arena;
    packbuf_view view;
    packbuf_error error;
    tagged_text text = {NULL, 0, 0, 0};
    memcpy(copy, data, size);
    copy[bit / 8] = (uint8_t)(copy[bit / 8] ^ 1u << bit % 8);
    seal_all(copy, size); /* so that damage gets past the checksums */
    packbuf_arena_init(&arena, NULL);
    arena.limit = 1 << 24;
    if (packbuf_open(&view, copy, size, 0, NULL, &error) == PACKBUF_OK) {
      const packbuf_status full = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error),
                           read = read_rows(&text, &view, bit / 8, &arena, &error);
      if (full == PACKBUF_OK && read != PACKBUF_OK && read != PACKBUF_OUT_OF_MEMORY && read != PACKBUF_LIMIT)
        tap_ok(0, "bit %lu, resealed: verified, and not readable: %s %s", (unsigned long)bit,
               packbuf_rule_name(error.rule), error.message);
      passed += full == PACKBUF_OK;
    }
    free(text.data);
    packbuf_arena_free(&arena);
  }
  free(copy);
  return passed;
}

static void valid_vector(const char *folder, const char *name) {
  char json_name[256];
  size_t size = 0, json_size = 0, length = strlen(name) - 5;
  uint8_t *data = load(folder, name, &size), *json;
  packbuf_view view;
  packbuf_arena arena;
  packbuf_error error;
  packbuf_status status;
  tagged_text text = {NULL, 0, 0, 0};
  unsigned prefixes = 0;
  snprintf(json_name, sizeof json_name, "%.*s.json", (int)length, name);
  json = load(folder, json_name, &json_size);
  packbuf_arena_init(&arena, NULL);
  memset(&error, 0, sizeof error);
  status = data ? packbuf_open(&view, data, size, PACKBUF_OPEN_EXACT, NULL, &error) : PACKBUF_NOT_FOUND;
  if (status == PACKBUF_OK) status = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
  if (tap_ok(status == PACKBUF_OK, "valid %s: opens and verifies (%s %s at %llu, %s)", name,
             packbuf_status_name(status), packbuf_rule_name(error.rule), (unsigned long long)error.offset,
             error.path)) {
    status = tagged_batch(&text, &view, &arena, &error);
    while (json_size && json && json[json_size - 1] == '\n') json_size--;
    if (!tap_ok(status == PACKBUF_OK && json && text.size == json_size && memcmp(text.data, json, json_size) == 0,
                "valid %s: prints as its JSON (%s)", name, packbuf_status_name(status)) &&
        text.size < 4000)
      tap_note("got  %s\n# want %.*s", text.data, (int)json_size, (const char *)json);
    tap_ok(columns_agree(&view, &arena), "valid %s: columns as cells", name);
    if (size <= 2048) {
      const unsigned passed = damage(data, size, &prefixes);
      tap_ok(prefixes == 0, "valid %s: no prefix opens; %u single-bit flips verify", name, passed);
      tap_ok(damage_sealed(data, size) > 0, "valid %s: resealed flips", name);
    }
  }
  packbuf_arena_free(&arena);
  free(text.data);
  free(json);
  free(data);
}

/* file, level, rule, error, offset, why */
static void invalid_vector(const char *folder, char *line) {
  static const char *const levels[] = {"head", "index", "full"};
  char *column[6] = {NULL};
  int level = 0, lower_pass = 1;
  size_t size = 0;
  uint8_t *data;
  packbuf_error error;
  packbuf_status status;
  for (int i = 0; i < 6; i++) {
    column[i] = line;
    line += strcspn(line, "\t");
    if (*line) *line++ = 0;
  }
  while (level < 2 && strcmp(levels[level], column[1]) != 0) level++;
  data = load(folder, column[0], &size);
  memset(&error, 0, sizeof error);
  for (int lower = 0; data && lower < level; lower++)
    lower_pass = lower_pass && check(data, size, (packbuf_level)lower, &error) == PACKBUF_OK;
  status = data ? check(data, size, (packbuf_level)level, &error) : PACKBUF_NOT_FOUND;
  tap_ok(data && lower_pass && strcmp(packbuf_rule_name(error.rule), column[2]) == 0 &&
             strcmp(packbuf_status_name(status), column[3]) == 0 && error.code == status &&
             error.offset == strtoull(column[4], NULL, 10),
         "invalid %s: %s %s at %s (%s); got %s %s at %llu%s", column[0], column[2], column[3], column[4], column[5],
         packbuf_rule_name(error.rule), packbuf_status_name(status), (unsigned long long)error.offset,
         lower_pass ? "" : ", and a lower level failed");
  if (data) { /* whatever is broken, reading it anyway is safe */
    packbuf_view view;
    packbuf_arena arena;
    tagged_text text = {NULL, 0, 0, 0};
    packbuf_arena_init(&arena, NULL);
    arena.limit = 1 << 24;
    if (packbuf_open(&view, data, size, 0, NULL, NULL) == PACKBUF_OK)
      (void)read_rows(&text, &view, error.offset, &arena, &error);
    packbuf_arena_free(&arena);
    free(text.data);
  }
  free(data);
}

int main(int argc, char **argv) {
  char folder[1024], line[4096];
  const char *root = argc > 1 ? argv[1] : "spec/vectors";
  struct dirent *entry;
  FILE *index;
  DIR *directory;
  unsigned valid = 0, invalid = 0;
  snprintf(folder, sizeof folder, "%s/valid", root);
  directory = opendir(folder);
  while (directory && (entry = readdir(directory)) != NULL) {
    const size_t length = strlen(entry->d_name);
    if (length > 5 && strcmp(entry->d_name + length - 5, ".pbuf") == 0) valid_vector(folder, entry->d_name), valid++;
  }
  if (directory) closedir(directory);
  snprintf(folder, sizeof folder, "%s/invalid", root);
  snprintf(line, sizeof line, "%s/index.tsv", folder);
  index = fopen(line, "r");
  while (index && fgets(line, sizeof line, index)) {
    line[strcspn(line, "\n")] = 0;
    if (line[0] && strncmp(line, "file\t", 5) != 0) invalid_vector(folder, line), invalid++;
  }
  if (index) fclose(index);
  tap_ok(valid > 0 && invalid > 0, "%u valid and %u invalid vectors in %s", valid, invalid, root);
  return tap_plan_done();
}
