/* tests/fragments.c: schema texts and fingerprints, manifests, joins and concatenation: every check with its error,
 * random splits of random batches against the whole, widening, hostile manifests, arenas that fail at every allocation.
 * May use: packbuf.h, failing.h, sealing.h, values.h, tap.h, the valid vectors.
 * Must not know: how a join looks inside. */
#ifdef PACKBUF_HEADER
#include "internals.h"
#else
#include "../packbuf.h"
#endif
#include "failing.h"
#include "sealing.h"
#include "tap.h"
#include "values.h"

static packbuf_arena arena;
static packbuf_error error;

/* ---- packed buffers from the notation of values.h ---- */

typedef struct buffer {
  void *data;
  uint64_t size;
  packbuf_view view;
} buffer;

static void open_buffer(buffer *b) {
  char line[300];
  if (packbuf_open(&b->view, b->data, b->size, PACKBUF_OPEN_EXACT, NULL, &error) == PACKBUF_OK &&
      packbuf_verify(&b->view, PACKBUF_LEVEL_FULL, &error) == PACKBUF_OK)
    return;
  packbuf_error_format(&error, line, sizeof line);
  printf("Bail out! a test's own buffer does not open: %s\n", line);
  exit(2);
}

static void packed(packbuf_batch *batch, buffer *b) {
  if (packbuf_pack(batch, &b->data, &b->size, &error) != PACKBUF_OK) {
    char line[300];
    packbuf_error_format(&error, line, sizeof line);
    printf("Bail out! a test's own batch does not pack: %s\n", line);
    exit(2);
  }
  open_buffer(b);
}

/* `rows` is a list of dicts; `values` a dict of batch values, or NULL; token: the first byte of the row_order_token. */
static buffer pack_rows(const char *rows, const char *values, unsigned token) {
  packbuf_options options = packbuf_default_options();
  packbuf_batch batch;
  packbuf_value list = values_of(rows, &arena), dict;
  buffer b;
  options.row_order_token[0] = (uint8_t)token;
  packbuf_batch_init(&batch, list.as.list.count, &arena, &options, &error);
  packbuf_add_rows(&batch, list.as.list.items, &error);
  if (values) {
    dict = values_of(values, &arena);
    for (size_t i = 0; i < dict.as.dict.count; i++) {
      const packbuf_value key = dict.as.dict.entries[i].key;
      char *name = (char *)packbuf_arena_alloc(&arena, key.as.text.size + 1, 1);
      memcpy(name, key.as.text.data, key.as.text.size);
      name[key.as.text.size] = 0;
      if (packbuf_add_batch_value(&batch, name, &dict.as.dict.entries[i].value, &error))
        printf("Bail out! batch value\n");
    }
  }
  packed(&batch, &b);
  return b;
}

static const char *schema_of(const packbuf_view *view) {
  size_t size = 0;
  char *text;
  packbuf_schema_text(view, NULL, 0, &size, NULL);
  text = (char *)packbuf_arena_alloc(&arena, size + 1, 1);
  packbuf_schema_text(view, text, size, &size, NULL);
  text[size] = 0;
  return text;
}

static int is(packbuf_status got, packbuf_status want) {
  char line[300];
  if (got == want) return 1;
  if (got) packbuf_error_format(&error, line, sizeof line);
  tap_note("%s, not %s: %s", packbuf_status_name(got), packbuf_status_name(want), got ? line : "");
  return 0;
}

static int about(const char *path, uint64_t fragment) {
  if (strcmp(error.path, path) == 0 && error.fragment == fragment) return 1;
  tap_note("path %s, fragment %lld", error.path, (long long)error.fragment);
  return 0;
}

/* ---- schema ---- */

static const char *hex(const uint8_t *fingerprint) {
  static char text[33];
  for (int i = 0; i < 16; i++) snprintf(text + 2 * i, 3, "%02x", fingerprint[i]);
  return text;
}

static void sha256(void) {
  static const struct {
    const char *text;
    size_t times;
    const char *digest;
  } known[] = {{"", 1, "e3b0c44298fc1c149afbf4c8996fb924"},
               {"abc", 1, "ba7816bf8f01cfea414140de5dae2223"},
               {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, "248d6a61d20638b8e5c026930c3e6039"},
               {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    uint8_t fingerprint[16];
    const size_t size = strlen(known[i].text) * known[i].times;
    char *text = (char *)malloc(size + 1);
    for (size_t k = 0; k < known[i].times; k++)
      memcpy(text + k * strlen(known[i].text), known[i].text, strlen(known[i].text));
    packbuf_fingerprint_of(text, size, fingerprint);
    tap_ok(strcmp(hex(fingerprint), known[i].digest) == 0, "SHA-256 of %zu bytes", size);
    free(text);
  }
}

static void schema_text(void) {
  buffer b = pack_rows(
      "[{\"z\": 1, \"m\": {\"b\": \"x\", \"a.\\\"\": 0.5}, \"t\": tensor:int64(2,3)}, {\"z\": 2, \"m\": None, \"t\": tensor:int64(1,1), \"l\": [{\"k\": [1]}, None]}]",
      "{\"step\": 7}", 0);
  const char *want =
      "{\"packbuf_schema\":1}\n"
      "{\"field\":\"l\",\"kind\":\"list\"}\n"
      "{\"field\":\"l[0]\",\"kind\":\"dict\"}\n"
      "{\"field\":\"l[0].k\",\"codec\":\"typed_ragged\",\"dtype\":\"int64\",\"form\":\"list\",\"rank\":1}\n"
      "{\"field\":\"l[1]\",\"codec\":\"null\"}\n"
      "{\"field\":\"m\",\"kind\":\"dict\"}\n"
      "{\"field\":\"m.a\\\\.\\\"\",\"codec\":\"ndarray\",\"dtype\":\"float64\",\"form\":\"natural\",\"shape\":[]}\n"
      "{\"field\":\"m.b\",\"codec\":\"utf8_ragged\"}\n"
      "{\"field\":\"t\",\"codec\":\"ragged_tensor\",\"dtype\":\"int64\",\"form\":\"tensor\",\"rank\":2}\n"
      "{\"field\":\"z\",\"codec\":\"ndarray\",\"dtype\":\"int64\",\"form\":\"natural\",\"shape\":[]}\n"
      "{\"value\":\"step\",\"codec\":\"ndarray\",\"dtype\":\"int64\",\"form\":\"natural\",\"shape\":[]}\n";
  const char *got = schema_of(&b.view);
  char small[40], line[200];
  size_t size = 0, at = 20;
  uint8_t one[16], two[16];
  int lines = 1;
  if (!tap_ok(strcmp(got, want) == 0, "the schema text")) printf("%s", got);
  tap_ok(packbuf_schema_text(&b.view, small, sizeof small, &size, &error) == PACKBUF_CAPACITY && size == strlen(want) &&
             error.needed == size,
         "CAPACITY, and the size that is needed");
  packbuf_fingerprint(&b.view, one, NULL);
  packbuf_fingerprint_of(want, strlen(want), two);
  tap_ok(memcmp(one, two, 16) == 0, "the fingerprint is that of the text");
  for (uint32_t i = 0; i < b.view.node_count; i++) {
    const char *found;
    lines &= packbuf_schema_line(&b.view, i, line, sizeof line, &size, NULL) == PACKBUF_OK;
    line[size] = 0;
    found = strstr(want + at, line);
    lines &= found && found[-1] == '\n' && found[size] == '\n';
  }
  tap_ok(lines, "each node's line is one of the text");
}

static void drift(void) {
  static const struct {
    const char *step0, *now, *path, *word, *expected;
    int there;
  } cases[] = {
      {"[{\"a\": 1, \"b\": \"x\"}]", "[{\"b\": \"y\", \"a\": 2}, {\"b\": None, \"a\": None}, {\"a\": 5}]", NULL, NULL,
       NULL, 1},
      {"[{\"a\": 1}]", "[{\"a\": 1.5}]", "a", "dtype", "{\"field\":\"a\",\"codec\":\"ndarray\",\"dtype\":\"int64\"", 1},
      {"[{\"a\": 1}]", "[{\"a\": \"1\"}]", "a", "codec", "{\"field\":\"a\",\"codec\":\"ndarray\"", 1},
      {"[{\"a\": {\"b\": 1}}]", "[{\"a\": 1}]", "a", "codec", "{\"field\":\"a\",\"kind\":\"dict\"", 1},
      {"[{\"a\": scalar:int64}]", "[{\"a\": 1}]", "a", "form", "{\"field\":\"a\"", 1},
      {"[{\"a\": tensor:int8(1)}]", "[{\"a\": tensor:int8(1,1)}]", "a", "rank", "{\"field\":\"a\"", 1},
      {"[{\"a\": opaque:pickle}]", "[{\"a\": opaque:dill}]", "a", "parameter", "{\"field\":\"a\"", 1},
      {"[{\"a\": 1, \"b.c\": 2, \"d\": 3}]", "[{\"a\": 1, \"d\": 3}]", "b\\.c", "not there", "{\"field\":\"b\\\\.c\"",
       0},
      {"[{\"a\": 1, \"b\": 2}]", "[{\"a\": 1}]", "b", "not there", "{\"field\":\"b\"", 0},
      {"[{\"a\": 1, \"d\": 3}]", "[{\"a\": 1, \"b\": {\"c\": 1}, \"d\": 3}]", "b", "not expected", "", 1},
      {"[{\"a\": 1}]", "[{\"a\": 1, \"b\": 1}]", "b", "not expected", "", 1},
      {"[{\"a\": {\"x\": 1, \"y\": 1}}]", "[{\"a\": {\"x\": 1, \"y\": 1, \"xx\": 1}}]", "a.xx", "not expected", "", 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    buffer a = pack_rows(cases[i].step0, NULL, 0), b = pack_rows(cases[i].now, NULL, 3);
    const char *text = schema_of(&a.view);
    packbuf_drift found;
    uint8_t fingerprint[16];
    const packbuf_status status = packbuf_expect_schema(&b.view, text, strlen(text), &found, &error);
    packbuf_status print;
    int good;
    packbuf_fingerprint(&a.view, fingerprint, NULL);
    if (!cases[i].path) {
      print = packbuf_expect_fingerprint(&b.view, fingerprint, NULL);
      tap_ok(status == PACKBUF_OK && print == PACKBUF_OK,
             "rows, order of fields, nulls and missing cells are no drift");
      continue;
    }
    good = status == PACKBUF_SCHEMA_MISMATCH && strcmp(error.path, cases[i].path) == 0 &&
           strstr(error.message, cases[i].word) != NULL;
    good &=
        strncmp(found.expected.size ? found.expected.data : "", cases[i].expected, strlen(cases[i].expected)) == 0 &&
        (found.expected.size != 0) == (cases[i].expected[0] != 0);
    good &= (found.node != PACKBUF_NO_NODE) == cases[i].there;
    print = packbuf_expect_fingerprint(&b.view, fingerprint, NULL);
    if (!tap_ok(good && print == PACKBUF_SCHEMA_MISMATCH, "drift of %s: %s", cases[i].path, cases[i].word))
      tap_note("%s: %s, path %s, expected %.*s", packbuf_status_name(status), error.message, error.path,
               (int)found.expected.size, found.expected.data);
  }
  {
    buffer a = pack_rows("[{\"a\": 1}]", NULL, 0);
    tap_ok(packbuf_expect_schema(&a.view, "{}", 2, NULL, &error) == PACKBUF_INVALID_ARGUMENT, "what is no schema text");
    tap_ok(packbuf_expect_schema(&a.view, "{\"packbuf_schema\":1}\n", 21, NULL, &error) == PACKBUF_SCHEMA_MISMATCH,
           "the schema of nothing");
  }
}

/* ---- manifests ---- */

static packbuf_fragment fragment_of(const buffer *b, const char *key, packbuf_appends appends, uint64_t first_row) {
  packbuf_fragment f;
  memset(&f, 0, sizeof f);
  if (packbuf_fragment_of(&b->view, key, appends, first_row, &f, &error) != PACKBUF_OK)
    printf("Bail out! fragment_of\n");
  return f;
}

static buffer manifest_of(const packbuf_view *before, const packbuf_fragment *list, uint64_t count) {
  packbuf_batch batch;
  buffer b;
  if (!is(packbuf_manifest_init(&batch, before, list, count, &arena, NULL, &error), PACKBUF_OK)) exit(2);
  packed(&batch, &b);
  return b;
}

static void manifests(void) {
  buffer one = pack_rows("[{\"x\": 1}, {\"x\": 2}]", NULL, 5), two = pack_rows("[{\"x\": 3}]", NULL, 5),
         late = pack_rows("[{\"r\": 0.5}, {\"r\": 1.5}, {\"r\": 2.5}]", NULL, 5);
  packbuf_fragment list[3], again;
  const packbuf_fragment *read;
  packbuf_join join;
  packbuf_value rows[3],
      want = values_of("[{\"x\": 1, \"r\": 0.5}, {\"x\": 2, \"r\": 1.5}, {\"x\": 3, \"r\": 2.5}]", &arena);
  packbuf_view views[3];
  packbuf_batch batch;
  buffer first, second, empty;
  uint64_t count = 0, total = 0;
  list[0] = fragment_of(&one, "w0", PACKBUF_APPENDS_ROWS, 0);
  list[1] = fragment_of(&two, "w1", PACKBUF_APPENDS_ROWS, 2);
  list[2] = fragment_of(&late, "rewards", PACKBUF_APPENDS_FIELDS, 0);
  first = manifest_of(NULL, list, 2);
  second = manifest_of(&first.view, list + 2, 1);
  tap_ok(second.view.kind == 2 && second.view.rows == 3, "a manifest is a packed buffer of kind 2, a row a fragment");
  tap_ok(is(packbuf_manifest_read(&second.view, &arena, &read, &count, &total, &error), PACKBUF_OK) && count == 3 &&
             total == 3,
         "the next generation lists old and new");
  tap_ok(read[2].appends == 1 && read[1].first_row == 2 && read[1].rows == 1 && read[0].length == one.size &&
             read[2].head_checksum == late.view.head_checksum &&
             read[1].head_length == two.view.head_length + two.view.index_length && read[2].key.size == 7 &&
             memcmp(read[2].key.data, "rewards", 7) == 0,
         "and says where each lies");
  views[0] = one.view, views[1] = two.view, views[2] = late.view;
  tap_ok(is(packbuf_join_init(&join, read, views, 3, 0, &arena, &error), PACKBUF_OK) && join.rows == 3 &&
             join.field_count == 2,
         "rows and fields join");
  tap_ok(is(packbuf_join_read_rows(&join, 0, 3, &arena, rows, &error), PACKBUF_OK) &&
             packbuf_equal(&rows[0], &want.as.list.items[0]) && packbuf_equal(&rows[1], &want.as.list.items[1]) &&
             packbuf_equal(&rows[2], &want.as.list.items[2]),
         "and read as one");
  empty = manifest_of(NULL, NULL, 0);
  tap_ok(packbuf_manifest_read(&empty.view, &arena, &read, &count, &total, &error) == PACKBUF_OK && count == 0 &&
             total == 0,
         "a manifest of nothing");
  tap_ok(packbuf_manifest_read(&one.view, &arena, &read, &count, &total, &error) == PACKBUF_WRONG_TYPE,
         "a batch is no manifest");
  tap_ok(packbuf_fragment_of(&first.view, "m", PACKBUF_APPENDS_ROWS, 0, &again, &error) == PACKBUF_FRAGMENT_MISMATCH,
         "a manifest is no fragment");
  again = list[1];
  again.first_row = 1;
  tap_ok(packbuf_manifest_init(&batch, &first.view, &again, 1, &arena, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             error.fragment == 2,
         "rows that begin elsewhere are refused");
  again = list[2];
  again.first_row = 1;
  tap_ok(packbuf_manifest_init(&batch, &first.view, &again, 1, &arena, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             error.fragment == 2,
         "fields beyond the rows too");
}


/* A manifest of numbers that no writer would write. first_rows: a mask of them; NULL: none. */
static const uint8_t *forged_mask;

static buffer forged(uint64_t count, const uint64_t (*numbers)[6], unsigned kind) {
  static const char *const names[6] = {"length", "head_length", "first_row", "rows", "head_checksum", "appends"};
  static const unsigned bits[6] = {64, 64, 64, 64, 32, 8};
  packbuf_text keys[4] = {{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}};
  uint8_t data[6][32];
  packbuf_batch batch;
  buffer b;
  packbuf_batch_init(&batch, count, &arena, NULL, &error);
  packbuf_add_strings(&batch, "key", keys, &error);
  for (unsigned f = 0; f < 6; f++) {
    packbuf_tensor t;
    uint64_t shape[1];
    shape[0] = count;
    memset(&t, 0, sizeof t);
    for (uint64_t i = 0; i < count; i++) {
      uint8_t native8 = (uint8_t)numbers[i][f];
      uint32_t native32 = (uint32_t)numbers[i][f];
      if (bits[f] == 64) memcpy(data[f] + 8 * i, &numbers[i][f], 8);
      else if (bits[f] == 32) memcpy(data[f] + 4 * i, &native32, 4);
      else data[f][i] = native8;
    }
    t.data = data[f];
    t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, bits[f]);
    t.rank = 1;
    t.shape = shape;
    packbuf_add_tensor(&batch, names[f], &t, f == 2 ? forged_mask : NULL, &error);
  }
  batch.kind = (uint8_t)kind;
  packed(&batch, &b);
  return b;
}

static void hostile_manifests(void) {
  static const struct {
    const char *what;
    uint64_t numbers[2][6]; /* length, head_length, first_row, rows, head_checksum, appends */
    uint64_t at;
  } cases[] = {
      {"overlapping rows", {{512, 256, 0, 2, 1, 0}, {512, 256, 1, 2, 1, 0}}, 1},
      {"a hole between rows", {{512, 256, 0, 2, 1, 0}, {512, 256, 3, 2, 1, 0}}, 1},
      {"rows whose sum overflows", {{512, 256, 0, UINT64_MAX, 1, 0}, {512, 256, UINT64_MAX, 2, 1, 0}}, 0},
      {"more than 2^48 rows", {{512, 256, 0, (uint64_t)1 << 48, 1, 0}, {512, 256, (uint64_t)1 << 48, 1, 1, 0}}, 1},
      {"fields beyond the rows", {{512, 256, 0, 2, 1, 0}, {512, 256, 1, 2, 1, 1}}, 1},
      {"fields that overflow", {{512, 256, 0, 2, 1, 0}, {512, 256, UINT64_MAX, 2, 1, 1}}, 1},
      {"fields before any rows", {{512, 256, 0, 2, 1, 1}, {512, 256, 0, 2, 1, 0}}, 0},
      {"appends 2", {{512, 256, 0, 2, 1, 2}, {512, 256, 0, 2, 1, 0}}, 0},
      {"a head beyond its length", {{512, 513, 0, 2, 1, 0}, {512, 256, 2, 2, 1, 0}}, 0},
      {"a head below 128", {{512, 256, 0, 2, 1, 0}, {512, 64, 2, 2, 1, 0}}, 1}};
  const packbuf_fragment *read;
  uint64_t count = 0, total = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    buffer b = forged(2, cases[i].numbers, 2);
    tap_ok(is(packbuf_manifest_read(&b.view, &arena, &read, &count, &total, &error), PACKBUF_BAD_MANIFEST) &&
               error.fragment == cases[i].at,
           "BAD_MANIFEST: %s", cases[i].what);
  }
  {
    static const char *const wrong[] = {
        "[]", "[{\"key\": \"a\"}]", "[{\"key\": 1}]", "[{\"key\": None}, {\"key\": \"a\"}]",
        "[{\"key\": \"a\", \"length\": 128, \"head_length\": 128, \"first_row\": 0, \"rows\": 0, \"head_checksum\": 0, \"appends\": 0}]"};
    static const char *const path[] = {"key", "length", "key", "key", "length"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
      packbuf_batch batch;
      packbuf_value list = values_of(wrong[i], &arena);
      buffer b;
      packbuf_batch_init(&batch, list.as.list.count, &arena, NULL, &error);
      packbuf_add_rows(&batch, list.as.list.items, &error);
      batch.kind = 2;
      packed(&batch, &b);
      tap_ok(is(packbuf_manifest_read(&b.view, &arena, &read, &count, &total, &error), PACKBUF_BAD_MANIFEST) &&
                 strcmp(error.path, path[i]) == 0,
             "BAD_MANIFEST: %s is wrong", path[i]);
    }
  }
  { /* first_row has the stored rows 2 and 0 and the row index 1, 0, where there was a validity mask */
    static const uint64_t numbers[2][6] = {{512, 256, 2, 2, 1, 0}, {512, 256, 0, 2, 1, 0}};
    static const uint8_t first = 1;
    packbuf_node node;
    packbuf_buffer mask;
    buffer b;
    uint8_t *record;
    forged_mask = &first;
    b = forged(2, numbers, 2);
    forged_mask = NULL;
    packbuf_find(&b.view, 0, "first_row", &node, &error);
    if (packbuf_get_buffer(&b.view, &node, PACKBUF_ROLE_VALIDITY, 0, &mask, &error)) printf("Bail out! no mask\n");
    record = (uint8_t *)b.data + bytes_buffer_at(&b.view, mask.index);
    record[4] = PACKBUF_ROLE_ROW_INDEX, record[9] = 64;
    bytes_store64(record + 40, 1);
    seal_all((uint8_t *)b.data, b.size);
    open_buffer(&b);
    tap_ok(is(packbuf_manifest_read(&b.view, &arena, &read, &count, &total, &error), PACKBUF_OK) &&
               read[0].first_row == 0 && read[1].first_row == 2 && total == 4,
           "numbers may share rows");
  }
  { /* a key that all fragments have */
    enum { COUNT = 300, LONG = 1 << 14 };
    packbuf_fragment list[COUNT];
    packbuf_status large, small;
    buffer b;
    char *key = (char *)packbuf_arena_alloc(&arena, LONG, 1);
    memset(key, 'k', LONG);
    memset(list, 0, sizeof list);
    for (unsigned i = 0; i < COUNT; i++) {
      list[i].key.data = key, list[i].key.size = LONG;
      list[i].length = list[i].head_length = 128;
    }
    b = manifest_of(NULL, list, COUNT);
    large = packbuf_manifest_read(&b.view, &arena, &read, &count, &total, &error);
    b.view.limits.decoded_bytes = 100 * LONG;
    small = packbuf_manifest_read(&b.view, &arena, &read, &count, &total, &error);
    tap_ok(b.size < 10 * LONG && large == PACKBUF_OK && small == PACKBUF_LIMIT,
           "%u keys that are one keep to the limit of decoded bytes", COUNT);
  }
  { /* 2^48 rows of constants cost neither time nor memory */
    static const uint64_t numbers[2][6] = {{512, 256, 0, 2, 1, 0}, {512, 256, 2, 2, 1, 0}};
    buffer b = forged(2, numbers, 2);
    b.view.rows = (uint64_t)1 << 48; /* as a head would say whose constants have as many */
    tap_ok(packbuf_manifest_read(&b.view, &arena, &read, &count, &total, &error) != PACKBUF_OK,
           "2^48 fragments are refused: %s", packbuf_status_name(error.code));
  }
}

/* ---- the checks of a join ---- */

static packbuf_status join_status(packbuf_join *join, const buffer *b, unsigned count, const packbuf_fragment *list,
                                  unsigned flags) {
  packbuf_view *views = (packbuf_view *)packbuf_arena_alloc(&arena, count * sizeof *views, 8);
  for (unsigned i = 0; i < count; i++) views[i] = b[i].view;
  return packbuf_join_init(join, list, views, count, flags, &arena, &error);
}

static void join_checks(void) {
  buffer b[4];
  packbuf_fragment list[4], bad[4];
  packbuf_join join;
  packbuf_join_part parts[4];
  packbuf_value values[3], dict, want;
  uint64_t count = 0;
  b[0] = pack_rows("[{\"x\": 1, \"m\": {\"k\": \"a\"}}, {\"x\": 2, \"m\": None}]", "{\"step\": 7}", 9);
  b[1] = pack_rows("[{\"x\": 3, \"m\": {\"k\": \"c\"}}]", "{\"step\": 7, \"who\": \"b\"}", 9);
  b[2] = pack_rows("[{\"r\": 0.5}, {\"r\": 0.25}, {\"r\": 2.5}]", NULL, 9);
  list[0] = fragment_of(&b[0], "0", PACKBUF_APPENDS_ROWS, 0);
  list[1] = fragment_of(&b[1], "1", PACKBUF_APPENDS_ROWS, 2);
  list[2] = fragment_of(&b[2], "2", PACKBUF_APPENDS_FIELDS, 0);
  tap_ok(is(join_status(&join, b, 3, list, 0), PACKBUF_OK), "they join");
  tap_ok(packbuf_join_parts(&join, "m.k", parts, 4, &count, &error) == PACKBUF_OK && count == 2 &&
             parts[1].fragment == 1 && parts[1].first_row == 2 && parts[1].rows == 1,
         "parts of a path");
  tap_ok(packbuf_join_parts(&join, "m.q", parts, 4, &count, &error) == PACKBUF_NOT_FOUND &&
             packbuf_join_parts(&join, "y", parts, 4, &count, &error) == PACKBUF_NOT_FOUND,
         "NOT_FOUND");
  tap_ok(packbuf_join_read_column(&join, "m.k", 1, 2, &arena, values, &error) == PACKBUF_OK &&
             values[0].kind == PACKBUF_NULL && values[1].kind == PACKBUF_STRING,
         "a nested column over a border");
  tap_ok(packbuf_join_read_column(&join, "x", 2, 2, &arena, values, &error) == PACKBUF_OUT_OF_RANGE &&
             packbuf_join_read_rows(&join, 4, 0, &arena, values, &error) == PACKBUF_OUT_OF_RANGE,
         "OUT_OF_RANGE");
  want = values_of("{\"step\": 7, \"who\": \"b\"}", &arena);
  tap_ok(packbuf_join_read_batch_values(&join, &arena, &dict, &error) == PACKBUF_OK && packbuf_equal(&dict, &want),
         "batch values of all fragments");
#define REFUSED(change, status, which, text)                                                                     \
  memcpy(bad, list, sizeof bad);                                                                                      \
  change;                                                                                                             \
  tap_ok(is(join_status(&join, b, 3, bad, 0), status) && error.fragment == (which), "%s: %s", #status, text)
  REFUSED(bad[1].length += 64, PACKBUF_FRAGMENT_MISMATCH, 1, "length");
  REFUSED(bad[0].head_length += 64, PACKBUF_FRAGMENT_MISMATCH, 0, "head_length");
  REFUSED(bad[2].rows = 2, PACKBUF_FRAGMENT_MISMATCH, 2, "rows");
  REFUSED(bad[1].head_checksum ^= 1, PACKBUF_FRAGMENT_MISMATCH, 1, "head_checksum");
  REFUSED(bad[1].first_row = 1, PACKBUF_BAD_MANIFEST, 1, "first_row");
  REFUSED(bad[2].first_row = 1, PACKBUF_BAD_MANIFEST, 2, "fields beyond the rows");
  {
    buffer manifest = manifest_of(NULL, list, 3), keep = b[1];
    b[1] = manifest;
    tap_ok(is(join_status(&join, b, 2, NULL, 0), PACKBUF_FRAGMENT_MISMATCH) && error.fragment == 1,
           "a fragment that is itself a manifest");
    b[1] = keep;
  }
  {
    buffer keep = b[2];
    b[2] = pack_rows("[{\"r\": 0.5}, {\"r\": 0.25}, {\"r\": 2.5}]", NULL, 8);
    list[2] = fragment_of(&b[2], "2", PACKBUF_APPENDS_FIELDS, 0);
    tap_ok(is(join_status(&join, b, 3, list, 0), PACKBUF_ROW_ORDER) && error.fragment == 2, "ROW_ORDER: another token");
    b[2] = pack_rows("[{\"r\": 0.5}, {\"r\": 0.25}, {\"r\": 2.5}]", NULL, 0);
    list[2] = fragment_of(&b[2], "2", PACKBUF_APPENDS_FIELDS, 0);
    tap_ok(is(join_status(&join, b, 3, list, 0), PACKBUF_ROW_ORDER), "ROW_ORDER: no token");
    b[2] = pack_rows("[{\"r\": 0.5}, {\"x\": 0.25}, {\"r\": 2.5}]", NULL, 9);
    list[2] = fragment_of(&b[2], "2", PACKBUF_APPENDS_FIELDS, 0);
    tap_ok(is(join_status(&join, b, 3, list, 0), PACKBUF_DUPLICATE_NAME) && about("x", 2),
           "DUPLICATE_NAME: a field that the rows have");
    b[2] = keep;
    list[2] = fragment_of(&b[2], "2", PACKBUF_APPENDS_FIELDS, 0);
    keep = b[1];
    b[1] = pack_rows("[{\"x\": 3, \"m\": {\"k\": \"c\"}}]", NULL, 10);
    list[1] = fragment_of(&b[1], "1", PACKBUF_APPENDS_ROWS, 2);
    tap_ok(is(join_status(&join, b, 3, list, 0), PACKBUF_ROW_ORDER) && error.fragment == 2,
           "ROW_ORDER: some of the rows have another");
    b[1] = pack_rows("[{\"x\": 3, \"m\": {\"k\": 1}}]", NULL, 9);
    tap_ok(is(join_status(&join, b, 2, NULL, 0), PACKBUF_SCHEMA_MISMATCH) && about("m.k", 1) &&
               strstr(error.message, "codec"),
           "SCHEMA_MISMATCH: a nested column");
    b[1] = pack_rows("[{\"x\": 3, \"m\": {\"k\": \"a\", \"q\": 1}}]", NULL, 9);
    tap_ok(is(join_status(&join, b, 2, NULL, 0), PACKBUF_SCHEMA_MISMATCH) && about("m.q", 1),
           "SCHEMA_MISMATCH: another key");
    b[1] = pack_rows("[{\"m\": {\"k\": \"a\"}}]", NULL, 9);
    tap_ok(is(join_status(&join, b, 2, NULL, 0), PACKBUF_SCHEMA_MISMATCH) && about("x", 1) && error.row == 2,
           "SCHEMA_MISMATCH: a field that is lacking");
    b[1] = pack_rows("[{\"x\": 3, \"m\": {\"k\": \"c\"}, \"y\": 1}]", NULL, 9);
    tap_ok(is(join_status(&join, b, 2, NULL, 0), PACKBUF_SCHEMA_MISMATCH) && about("y", 0) && error.row == 0,
           "SCHEMA_MISMATCH: a field that only later rows have");
    tap_ok(is(join_status(&join, b, 2, NULL, PACKBUF_WIDEN), PACKBUF_OK) &&
               packbuf_join_read_column(&join, "y", 0, 3, &arena, values, &error) == PACKBUF_OK &&
               values[0].kind == PACKBUF_MISSING && values[2].kind == PACKBUF_INT,
           "which PACKBUF_WIDEN reads as missing");
    b[1] = pack_rows("[{\"x\": 3, \"m\": {\"k\": \"c\"}}]", "{\"step\": 8}", 9);
    tap_ok(is(join_status(&join, b, 2, NULL, 0), PACKBUF_OK) &&
               is(packbuf_join_read_batch_values(&join, &arena, &dict, &error), PACKBUF_SCHEMA_MISMATCH) &&
               about("step", 1),
           "batch values that differ");
    b[1] = pack_rows("[]", NULL, 0);
    tap_ok(is(join_status(&join, b, 2, NULL, 0), PACKBUF_OK) && join.rows == 2, "a fragment without rows fits any");
    b[1] = keep;
  }
  tap_ok(is(join_status(&join, b, 0, NULL, 0), PACKBUF_OK) && join.rows == 0 &&
             packbuf_join_read_rows(&join, 0, 0, &arena, values, &error) == PACKBUF_OK,
         "nothing joined is nothing");
  tap_ok(join_status(&join, b, 1, NULL, 4) == PACKBUF_INVALID_ARGUMENT, "flags are checked");
}

/* ---- random batches, split by rows and by fields ---- */

enum { ROWS = 24, COLUMNS = 9 };

typedef struct whole {
  uint64_t rows;
  float dense[ROWS * 3];
  uint8_t present[ROWS];
  int64_t numbers[ROWS];
  int16_t elements[ROWS * 16];
  uint64_t shapes[ROWS][2];
  packbuf_tensor tensors[ROWS];
  packbuf_text texts[ROWS], blobs[ROWS];
  packbuf_value metas[ROWS], lists[ROWS], mixed[ROWS], flags[ROWS];
} whole;

static uint64_t random_state = 1;
static uint64_t chance(uint64_t below) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (random_state >> 33) % below;
}

static packbuf_value random_list(void) {
  const size_t count = (size_t)chance(5);
  packbuf_value *items = (packbuf_value *)packbuf_arena_alloc(&arena, (count + 1) * sizeof *items, 8);
  for (size_t i = 0; i < count; i++) items[i] = packbuf_int((int64_t)chance(1000) - 500);
  return packbuf_list(items, count);
}

/* `typed`: every split has the columns of the whole, whatever rows it has. */
static void random_whole(whole *w, int typed) {
  static const char *const words[] = {"", "a", "tool", "a longer text with more than one word", "\xC3\xA4"};
  memset(w, 0, sizeof *w);
  w->rows = chance(ROWS + 1);
  for (uint64_t i = 0; i < w->rows; i++) {
    packbuf_entry *entries = (packbuf_entry *)packbuf_arena_alloc(&arena, 3 * sizeof *entries, 8);
    for (int k = 0; k < 3; k++) w->dense[3 * i + (uint64_t)k] = (float)chance(100) / 8;
    w->present[i] = chance(4) != 0;
    w->numbers[i] = (int64_t)chance(3);
    w->shapes[i][0] = chance(4);
    w->shapes[i][1] = 1 + chance(3);
    for (int k = 0; k < 16; k++) w->elements[16 * i + (uint64_t)k] = (int16_t)chance(1000);
    w->tensors[i].data = &w->elements[16 * i];
    w->tensors[i].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 16);
    w->tensors[i].rank = 2;
    w->tensors[i].shape = w->shapes[i];
    w->texts[i].data = chance(5) ? words[chance(5)] : NULL;
    w->texts[i].size = w->texts[i].data ? strlen(w->texts[i].data) : 0;
    w->blobs[i].data = words[chance(5)];
    w->blobs[i].size = strlen(w->blobs[i].data);
    entries[0].key = packbuf_string("s"), entries[0].value = packbuf_string(words[chance(5)]);
    entries[1].key = packbuf_string("n"), entries[1].value = packbuf_int((int64_t)chance(9));
    entries[2].key = packbuf_string("o"), entries[2].value = packbuf_float(0.5);
    w->metas[i] = packbuf_dict(entries, typed || chance(2) ? 3 : 2);
    w->lists[i] = random_list();
    if (typed) w->lists[i] = values_of("[1, 2, 3]", &arena);
    w->flags[i] = packbuf_bool(chance(2) != 0);
    switch (typed ? 0 : chance(6)) {
      case 0: w->mixed[i] = packbuf_int((int64_t)chance(9)); break;
      case 1: w->mixed[i] = packbuf_float(0.25); break;
      case 2: w->mixed[i] = packbuf_null(); break;
      case 3: w->mixed[i] = packbuf_string("text"); break;
      case 4: w->mixed[i] = packbuf_missing(); break;
      default: w->mixed[i] = random_list();
    }
  }
}

/* Rows first to first + count of the columns in `columns` (a bit each) as a packed buffer. */
static buffer slice(const whole *w, uint64_t first, uint64_t count, unsigned columns, unsigned token) {
  packbuf_options options = packbuf_default_options();
  uint64_t shape[2];
  uint8_t validity[ROWS / 8 + 1] = {0};
  packbuf_tensor dense, numbers;
  packbuf_value step = packbuf_int(12);
  packbuf_batch batch;
  buffer b;
  int good = 1;
  options.row_order_token[0] = (uint8_t)token;
  memset(&dense, 0, sizeof dense);
  for (uint64_t i = 0; i < count; i++)
    validity[i / 8] = (uint8_t)(validity[i / 8] | (unsigned)w->present[first + i] << i % 8);
  shape[0] = count, shape[1] = 3;
  dense.data = w->dense + 3 * first;
  dense.dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
  dense.rank = 2;
  dense.shape = shape;
  numbers = dense;
  numbers.data = w->numbers + first;
  numbers.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  numbers.rank = 1;
  packbuf_batch_init(&batch, count, &arena, &options, &error);
  if (columns & 1) good &= !packbuf_add_tensor(&batch, "dense", &dense, validity, &error);
  if (columns & 2) good &= !packbuf_add_tensor(&batch, "numbers", &numbers, NULL, &error);
  if (columns & 4) good &= !packbuf_add_tensors(&batch, "tensors", w->tensors + first, &error);
  if (columns & 8) good &= !packbuf_add_strings(&batch, "texts", w->texts + first, &error);
  if (columns & 16) good &= !packbuf_add_bytes(&batch, "blobs", w->blobs + first, &error);
  if (columns & 32) good &= !packbuf_add_values(&batch, "metas", w->metas + first, &error);
  if (columns & 64) good &= !packbuf_add_values(&batch, "lists", w->lists + first, &error);
  if (columns & 128) good &= !packbuf_add_values(&batch, "mixed", w->mixed + first, &error);
  if (columns & 256) good &= !packbuf_add_values(&batch, "flags", w->flags + first, &error);
  good &= !packbuf_add_batch_value(&batch, "step", &step, &error) &&
          !packbuf_add_metadata(&batch, NULL, "run", "r1", &error);
  if (columns & 8) good &= !packbuf_add_metadata(&batch, "texts", "unit", "words", &error);
  if (!good) printf("Bail out! slice\n");
  packed(&batch, &b);
  return b;
}

static int same_rows(const packbuf_view *a, const packbuf_join *join, const packbuf_view *b) {
  packbuf_value *x = (packbuf_value *)packbuf_arena_alloc(&arena, (size_t)(a->rows + 1) * sizeof *x, 8),
                *y = (packbuf_value *)packbuf_arena_alloc(&arena, (size_t)(a->rows + 1) * sizeof *y, 8);
  if (packbuf_read_rows(a, 0, a->rows, &arena, x, &error) != PACKBUF_OK) return 0;
  if (join && (join->rows != a->rows || packbuf_join_read_rows(join, 0, a->rows, &arena, y, &error) != PACKBUF_OK))
    return 0;
  if (b && (b->rows != a->rows || packbuf_read_rows(b, 0, a->rows, &arena, y, &error) != PACKBUF_OK)) return 0;
  for (uint64_t i = 0; i < a->rows; i++)
    if (!packbuf_equal(&x[i], &y[i])) return 0;
  return 1;
}

static void random_splits(int typed) {
  int joined = 1, equal = 1, same = 1, ranges = 1, fingerprints = 1;
  for (unsigned round = 0; round < 300; round++) {
    const unsigned flags = typed ? 0 : PACKBUF_WIDEN, all = (1 << COLUMNS) - 1;
    unsigned count = 0, late = typed && chance(2) ? (unsigned)chance(all) : 0;
    packbuf_fragment list[8];
    buffer fragments[8], complete, made;
    packbuf_batch batch;
    packbuf_join join;
    packbuf_value part[2];
    whole w;
    packbuf_arena_free(&arena);
    random_state = round + 1;
    random_whole(&w, typed);
    complete = slice(&w, 0, w.rows, all, 0);
    for (uint64_t at = 0; at < w.rows || count == 0;) {
      const uint64_t rows = count == 6 ? w.rows - at : chance(w.rows - at + 1);
      if (rows == 0 && count && chance(3)) continue;
      if (count == 6 && rows == 0) break;
      fragments[count] = slice(&w, at, rows, all & ~late, 1);
      list[count] = fragment_of(&fragments[count], "k", PACKBUF_APPENDS_ROWS, at);
      count++;
      at += rows;
    }
    if (late) {
      fragments[count] = slice(&w, 0, w.rows, late, 1);
      list[count] = fragment_of(&fragments[count], "late", PACKBUF_APPENDS_FIELDS, 0);
      count++;
    }
    if (!is(join_status(&join, fragments, count, list, flags), PACKBUF_OK)) {
      tap_note("round %u", round);
      joined = 0;
      continue;
    }
    same &= same_rows(&complete.view, &join, NULL);
    if (w.rows) {
      const uint64_t row = chance(w.rows);
      ranges &= packbuf_join_read_rows(&join, row, 1, &arena, part, &error) == PACKBUF_OK &&
                packbuf_read_row(&complete.view, row, &arena, part + 1, &error) == PACKBUF_OK &&
                packbuf_equal(part, part + 1);
    }
    if (!is(packbuf_join_batch(&join, &arena, NULL, &batch, &error), PACKBUF_OK) ||
        !is(packbuf_pack(&batch, &made.data, &made.size, &error), PACKBUF_OK)) {
      tap_note("round %u", round);
      joined = 0;
      continue;
    }
    open_buffer(&made);
    same &= same_rows(&complete.view, NULL, &made.view);
    if (!late && w.rows && (made.size != complete.size || memcmp(made.data, complete.data, (size_t)made.size) != 0)) {
      const char *text = schema_of(&complete.view);
      fingerprints &= packbuf_expect_schema(&made.view, text, strlen(text), NULL, &error) == PACKBUF_OK;
      if (equal)
        tap_note("round %u: %llu and %llu bytes, %u fragments of %u rows", round, (unsigned long long)made.size,
                 (unsigned long long)complete.size, count, (unsigned)w.rows);
      equal = 0;
    }
    if (!same) {
      tap_note("round %u", round);
      break;
    }
  }
  tap_ok(joined, "random splits join and concatenate (%s)", typed ? "strict, fields too" : "widened");
  tap_ok(same && ranges, "their values are those of the whole (%s)", typed ? "strict" : "widened");
  tap_ok(equal, "concatenated, they have the bytes of the whole (%s)", typed ? "strict" : "widened");
  tap_ok(fingerprints, "and its schema (%s)", typed ? "strict" : "widened");
}

/* ---- widening: section 18 ---- */

static void widening(void) {
  static const struct {
    const char *a, *b, *line;
  } cases[] = {{"1", "0.5", "\"codec\":\"ndarray\",\"dtype\":\"float64\""},
               {"True", "2", "\"codec\":\"ndarray\",\"dtype\":\"int64\""},
               {"True", "2.5", "\"codec\":\"ndarray\",\"dtype\":\"float64\""},
               {"-1", "18446744073709551615", "\"codec\":\"json_ragged\""},
               {"1", "18446744073709551615", "\"codec\":\"ndarray\",\"dtype\":\"uint64\""},
               {"9007199254740993", "0.5", "\"codec\":\"json_ragged\""},
               {"1", "18446744073709551616", "\"codec\":\"json_ragged\""},
               {"None", "1", "\"codec\":\"ndarray\",\"dtype\":\"int64\""},
               {"None", "\"x\"", "\"codec\":\"utf8_ragged\""},
               {"\"x\"", "1", "\"codec\":\"json_ragged\""},
               {"\"x\"", "b\"x\"", "\"codec\":\"msgpack_ragged\""},
               {"[1, 2]", "[0.5]", "\"codec\":\"typed_ragged\",\"dtype\":\"float64\""},
               {"[1, 2]", "\"x\"", "\"codec\":\"json_ragged\""},
               {"tensor:int64(2)", "tensor:int64(1,2)",
                "\"codec\":\"ragged_tensor\",\"dtype\":\"int64\",\"form\":\"tensor\",\"rank\":2"},
               {"tensor:int64(2)", "tensor:int32(2)", "\"codec\":\"msgpack_ragged\""},
               {"tensor:int64(2)", "[1]", "\"codec\":\"msgpack_ragged\""},
               {"scalar:float32", "2.5", "\"codec\":\"msgpack_ragged\""},
               {"array:int64(2)", "[1, 2]", "\"codec\":\"typed_ragged\",\"dtype\":\"int64\""},
               {"{\"k\": 1}", "{\"k\": 0.5, \"q\": \"x\"}", "\"kind\":\"dict\""},
               {"{\"k\": 1}", "5", "\"codec\":\"json_ragged\""},
               {"{\"k\": [{\"a\": 1}]}", "{\"k\": [{\"a\": 1}, {\"b\": 2}]}", "\"kind\":\"dict\""},
               {"opaque:pickle", "opaque:dill", "\"codec\":\"msgpack_ragged\""},
               {"media:image/png", "media:image/jpeg", "\"codec\":\"media_bytes\""},
               {"Missing", "1", "\"codec\":\"ndarray\",\"dtype\":\"int64\""},
               {"nan1", "[0.5]", "\"codec\":\"msgpack_ragged\""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char a[200], b[200], both[400];
    buffer parts[2], together, made;
    packbuf_view views[2];
    packbuf_batch batch;
    const char *text;
    packbuf_status strict;
    snprintf(a, sizeof a, "[{\"c\": %s, \"id\": 1}, {\"c\": None, \"id\": 2}]", cases[i].a);
    snprintf(b, sizeof b, "[{\"c\": %s, \"id\": 3}]", cases[i].b);
    snprintf(both, sizeof both, "[{\"c\": %s, \"id\": 1}, {\"c\": None, \"id\": 2}, {\"c\": %s, \"id\": 3}]",
             cases[i].a, cases[i].b);
    parts[0] = pack_rows(a, NULL, 0), parts[1] = pack_rows(b, NULL, 0), together = pack_rows(both, NULL, 0);
    views[0] = parts[0].view, views[1] = parts[1].view;
    strict = packbuf_concat(views, 2, 0, &arena, NULL, &batch, &error);
    if (strict != PACKBUF_OK)
      tap_ok(strict == PACKBUF_SCHEMA_MISMATCH && error.path[0] == 'c' && error.fragment == 1,
             "%s and %s: refused when strict", cases[i].a, cases[i].b);
    made.data = NULL, made.size = 0;
    if (!tap_ok(is(packbuf_concat(views, 2, PACKBUF_WIDEN, &arena, NULL, &batch, &error), PACKBUF_OK) &&
                    is(packbuf_pack(&batch, &made.data, &made.size, &error), PACKBUF_OK),
                "%s and %s widen", cases[i].a, cases[i].b))
      continue;
    open_buffer(&made);
    text = schema_of(&made.view);
    if (!tap_ok(strstr(text, cases[i].line) && same_rows(&together.view, NULL, &made.view) &&
                    made.size == together.size && memcmp(made.data, together.data, (size_t)made.size) == 0,
                "%s and %s: the bytes of the whole, %s", cases[i].a, cases[i].b, cases[i].line))
      printf("%s", text);
  }
}

/* What inference would not choose again is kept where all fragments have it. */
static void kept(void) {
  packbuf_schema schemas[3];
  packbuf_options options = packbuf_default_options();
  packbuf_value cells[2][2], dicts[2][2], metas[2];
  packbuf_entry entries[2][2];
  packbuf_view views[2];
  packbuf_batch batch;
  buffer parts[2], made;
  memset(schemas, 0, sizeof schemas);
  schemas[0].path = "when", schemas[0].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), schemas[0].logical_type = 1,
  schemas[0].parameter = "ms";
  schemas[1].path = "m.j", schemas[1].codec = PACKBUF_CODEC_JSON_RAGGED;
  schemas[2].path = "m.s", schemas[2].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 8), schemas[2].logical_type = 1,
  schemas[2].parameter = "D";
  options.schemas = schemas, options.schema_count = 3;
  for (int f = 0; f < 2; f++) {
    for (int i = 0; i < 2; i++) {
      cells[f][i] = packbuf_int(1700000000000 + f * 10 + i);
    }
    entries[f][0].key = packbuf_string("j"), entries[f][0].value = packbuf_string("text");
    entries[f][1].key = packbuf_string("s"), entries[f][1].value = packbuf_int(f);
    dicts[f][0] = packbuf_dict(entries[f], 2), dicts[f][1] = packbuf_missing();
    packbuf_batch_init(&batch, 2, &arena, &options, &error);
    packbuf_add_values(&batch, "when", cells[f], &error);
    packbuf_add_values(&batch, "m", dicts[f], &error);
    metas[f] = packbuf_int(5);
    packbuf_add_batch_value(&batch, "v", &metas[f], &error);
    packbuf_add_metadata(&batch, "m.j", "lang", "en", &error);
    packed(&batch, &parts[f]);
    views[f] = parts[f].view;
  }
  tap_ok(is(packbuf_concat(views, 2, 0, &arena, NULL, &batch, &error), PACKBUF_OK) &&
             is(packbuf_pack(&batch, &made.data, &made.size, &error), PACKBUF_OK),
         "columns of a caller's schema concatenate");
  open_buffer(&made);
  tap_ok(strcmp(schema_of(&made.view), schema_of(&views[0])) == 0, "and keep codec, dtype, logical type and parameter");
  tap_ok(made.view.metadata_count == 1, "and metadata of a nested node");
  packbuf_batch_init(&batch, 0, &arena, NULL, &error);
  packbuf_add_metadata(&batch, NULL, "k", "1", &error);
  packed(&batch, &parts[0]);
  packbuf_batch_init(&batch, 0, &arena, NULL, &error);
  packbuf_add_metadata(&batch, NULL, "k", "2", &error);
  packed(&batch, &parts[1]);
  views[0] = parts[0].view, views[1] = parts[1].view;
  tap_ok(is(packbuf_concat(views, 2, 0, &arena, NULL, &batch, &error), PACKBUF_SCHEMA_MISMATCH) && about("k", 1),
         "metadata that differ");
  tap_ok(is(packbuf_concat(views, 2, PACKBUF_FIRST_VALUE, &arena, NULL, &batch, &error), PACKBUF_OK),
         "of which PACKBUF_FIRST_VALUE takes the first");
}

/* Ragged columns whose cells have ranks of their own, null cells, and no cell at all. */
static void ragged(void) {
  static const char *const cases[][3] = {
      {"[{\"c\": tensor:int8(2,2)}, {\"c\": tensor:int8(3)}]",
       "[{\"c\": tensor:int8()}, {\"c\": None}, {\"c\": tensor:int8(1,3)}]",
       "[{\"c\": tensor:int8(2,2)}, {\"c\": tensor:int8(3)}, {\"c\": tensor:int8()}, {\"c\": None}, {\"c\": tensor:int8(1,3)}]"},
      {"[{\"c\": array:float16(0)}]", "[{\"c\": array:float16(3)}, {\"c\": Missing}]",
       "[{\"c\": array:float16(0)}, {\"c\": array:float16(3)}, {\"c\": Missing}]"},
      {"[{\"c\": [1, 2]}]", "[{\"c\": [[3], [4]]}, {\"c\": [5]}]", NULL},
      {"[{\"c\": [[1, 2]]}, {\"c\": [7]}]", "[{\"c\": [[3], [4]]}, {\"c\": [5]}]",
       "[{\"c\": [[1, 2]]}, {\"c\": [7]}, {\"c\": [[3], [4]]}, {\"c\": [5]}]"},
      {"[{\"c\": b\"x\"}]", "[{\"c\": b\"\"}, {\"c\": None}]", "[{\"c\": b\"x\"}, {\"c\": b\"\"}, {\"c\": None}]"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    buffer a = pack_rows(cases[i][0], NULL, 0), b = pack_rows(cases[i][1], NULL, 0), want, made;
    packbuf_view views[2];
    packbuf_batch batch;
    packbuf_status status;
    views[0] = a.view, views[1] = b.view;
    status = packbuf_concat(views, 2, 0, &arena, NULL, &batch, &error);
    if (!cases[i][2]) {
      tap_ok(is(status, PACKBUF_SCHEMA_MISMATCH) && strstr(error.message, "rank"), "another rank is another schema");
      continue;
    }
    want = pack_rows(cases[i][2], NULL, 0);
    made.data = NULL, made.size = 0;
    tap_ok(is(status, PACKBUF_OK) && is(packbuf_pack(&batch, &made.data, &made.size, &error), PACKBUF_OK) &&
               made.size == want.size && memcmp(made.data, want.data, (size_t)want.size) == 0,
           "ragged cells: the bytes of the whole, %s", cases[i][2]);
  }
}

/* Dense columns of every rank; with its rows, one whose cells have 8 dimensions has 9. */
static void dense_ranks(void) {
  FILE *file = fopen("spec/vectors/valid/ndarray_ranks.pbuf", "rb");
  packbuf_view views[2];
  packbuf_batch batch;
  buffer b, made;
  int good = 1;
  if (!file) {
    tap_skip("dense columns of every rank: spec/vectors/valid is not here");
    return;
  }
  b.data = packbuf_arena_alloc(&arena, 1 << 16, 64);
  b.size = fread(b.data, 1, 1 << 16, file);
  fclose(file);
  open_buffer(&b);
  views[0] = views[1] = b.view;
  good = is(packbuf_concat(views, 2, 0, &arena, NULL, &batch, &error), PACKBUF_OK) &&
         is(packbuf_pack(&batch, &made.data, &made.size, &error), PACKBUF_OK);
  if (good) open_buffer(&made);
  for (uint64_t row = 0; good && row < made.view.rows; row++) {
    packbuf_value was, now;
    good = is(packbuf_read_row(&b.view, row % b.view.rows, &arena, &was, &error), PACKBUF_OK) &&
           is(packbuf_read_row(&made.view, row, &arena, &now, &error), PACKBUF_OK) && packbuf_equal(&was, &now);
  }
  tap_ok(good && made.view.rows == 2 * b.view.rows, "dense columns of every rank");
}

/* ---- memory ---- */

static void no_memory(void) {
  buffer b[3];
  packbuf_fragment list[3];
  packbuf_view views[3];
  unsigned long fail_at = 0;
  int good = 1, ended = 0;
  b[0] = pack_rows(
      "[{\"x\": 1, \"m\": {\"k\": \"a\"}, \"t\": tensor:int8(2)}, {\"x\": 2, \"m\": None, \"t\": tensor:int8(1)}]",
      "{\"step\": 7}", 9);
  b[1] = pack_rows("[{\"x\": 3, \"m\": {\"k\": \"c\"}, \"t\": tensor:int8(3)}]", "{\"step\": 7}", 9);
  b[2] = pack_rows("[{\"r\": 0.5, \"s\": \"\"}, {\"r\": 0.25, \"s\": \"x\"}, {\"r\": 2.5, \"s\": None}]", NULL, 9);
  list[0] = fragment_of(&b[0], "0", PACKBUF_APPENDS_ROWS, 0),
  list[1] = fragment_of(&b[1], "1", PACKBUF_APPENDS_ROWS, 2),
  list[2] = fragment_of(&b[2], "2", PACKBUF_APPENDS_FIELDS, 0);
  for (int i = 0; i < 3; i++) views[i] = b[i].view;
  for (uint64_t limit = 0; !ended && limit < 200000;
       limit += limit < 4000 ? 24 : 500) { /* the arena's limit fails each allocation, also within a block */
    packbuf_arena local;
    packbuf_batch batch, manifest;
    packbuf_view opened;
    packbuf_join join;
    packbuf_value rows[3];
    const packbuf_fragment *read;
    uint64_t count, size;
    void *data;
    packbuf_status status;
    packbuf_arena_init(&local, NULL);
    local.limit = limit;
    status = packbuf_manifest_init(&manifest, NULL, list, 3, &local, NULL, &error);
    if (!status) status = packbuf_pack(&manifest, &data, &size, &error);
    if (!status) status = packbuf_open(&opened, data, size, 0, NULL, &error);
    if (!status) status = packbuf_manifest_read(&opened, &local, &read, &count, NULL, &error);
    if (!status) status = packbuf_join_init(&join, read, views, count, 0, &local, &error);
    if (!status) status = packbuf_join_read_rows(&join, 0, 3, &local, rows, &error);
    if (!status) status = packbuf_join_batch(&join, &local, NULL, &batch, &error);
    if (!status) status = packbuf_pack(&batch, &data, &size, &error);
    good &= status == PACKBUF_OK || status == PACKBUF_OUT_OF_MEMORY;
    ended = status == PACKBUF_OK;
    packbuf_arena_free(&local);
  }
  tap_ok(good && ended, "OUT_OF_MEMORY at every limit of the arena, until it is enough");
  good = 1, ended = 0;
  for (; !ended && fail_at < 200; fail_at++) {
    failing f = failing_at(fail_at, 1);
    const packbuf_allocator allocator = failing_allocator(&f);
    packbuf_arena local;
    packbuf_batch batch;
    packbuf_status status;
    uint64_t size;
    void *data;
    packbuf_arena_init(&local, &allocator);
    status = packbuf_concat(views, 2, 0, &local, NULL, &batch, &error);
    if (!status) status = packbuf_pack(&batch, &data, &size, &error);
    good &= status == PACKBUF_OK || status == PACKBUF_OUT_OF_MEMORY;
    ended = status == PACKBUF_OK;
    packbuf_arena_free(&local);
  }
  tap_ok(good && ended && fail_at > 1, "the i-th allocation fails: %lu of them", fail_at - 1);
}

/* ---- bytes from a stranger ---- */

/* What joins cost is limited by what the fragments' readers allow. */
static void join_limits(void) {
  packbuf_value rows[50];
  packbuf_view views[2];
  packbuf_join join;
  packbuf_batch batch;
  for (int ragged_numbers = 0; ragged_numbers < 3; ragged_numbers++) {
    static const char *const cells[] = {"\"t\"", "[1, 2]", "{\"a\": 1}"};
    char text[1200] = "[";
    buffer b;
    for (unsigned i = 0; i < 25; i++)
      snprintf(text + strlen(text), sizeof text - strlen(text), "%s{\"c\": %s}", i ? ", " : "", cells[ragged_numbers]);
    strcat(text, "]");
    b = pack_rows(text, NULL, 0);
    views[0] = views[1] = b.view;
    views[0].limits.decoded_bytes = 50 * 4;
    tap_ok(is(packbuf_join_init(&join, NULL, views, 2, 0, &arena, &error), PACKBUF_OK) &&
               is(packbuf_join_read_rows(&join, 0, 50, &arena, rows, &error), PACKBUF_LIMIT) &&
               is(packbuf_join_batch(&join, &arena, NULL, &batch, &error), PACKBUF_LIMIT),
           "rows of %s keep to the limit of decoded bytes", cells[ragged_numbers]);
  }
}

static struct {
  uint8_t *node, *record; /* the peer makes the dtype of a column int8 */
  int armed;
} peer;

static void *peer_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  (void)context, (void)old_size;
  if (!new_size) {
    free(memory);
    return NULL;
  }
  if (peer.armed) {
    peer.armed = 0;
    peer.node[26] = 8, peer.record[9] = 8;
    bytes_store64(peer.record + 32, bytes_load64(peer.record + 16));
  }
  return realloc(memory, new_size);
}

/* A peer that changes a column's type while it is taken over: at each place where memory is asked for. */
static void changing_type(void) {
  enum { PARTS = 30, COUNT = 64 };
  packbuf_view views[PARTS];
  packbuf_allocator allocator;
  packbuf_tensor t;
  packbuf_batch batch;
  buffer b;
  int64_t numbers[COUNT];
  uint64_t shape[1] = {COUNT}, size;
  unsigned noticed = 0;
  void *data;
  for (int i = 0; i < COUNT; i++) numbers[i] = i * i * 1000;
  memset(&t, 0, sizeof t);
  t.data = numbers, t.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), t.rank = 1, t.shape = shape;
  packbuf_batch_init(&batch, COUNT, &arena, NULL, &error);
  packbuf_add_tensor(&batch, "x", &t, NULL, &error);
  packed(&batch, &b);
  for (unsigned i = 0; i < PARTS; i++) views[i] = b.view;
  peer.node = (uint8_t *)b.data + b.view.nodes_at, peer.record = (uint8_t *)b.data + b.view.buffers_at;
  allocator.resize = peer_resize, allocator.context = NULL;
  for (size_t fill = 0; fill < 20000; fill += 64) {
    packbuf_arena local;
    packbuf_join join;
    packbuf_status status;
    uint8_t *copy = (uint8_t *)malloc((size_t)b.size);
    memcpy(copy, b.data, (size_t)b.size);
    for (unsigned i = 0; i < PARTS; i++) views[i].base = copy;
    peer.node = copy + b.view.nodes_at, peer.record = copy + b.view.buffers_at;
    packbuf_arena_init(&local, &allocator);
    for (size_t left = fill; left; left -= 64) (void)packbuf_arena_alloc(&local, 64, 8);
    status = packbuf_join_init(&join, NULL, views, PARTS, 0, &local, &error);
    peer.armed = 1;
    if (!status) status = packbuf_join_batch(&join, &local, NULL, &batch, &error);
    peer.armed = 0;
    noticed += status == PACKBUF_HEAD_CHECKSUM;
    if (!status) (void)packbuf_pack(&batch, &data, &size, &error);
    packbuf_arena_free(&local);
    free(copy);
  }
  tap_ok(noticed > 0, "a column whose type changes while it is taken over is refused (%u times)", noticed);
}

static void spoil(uint8_t *data, size_t size) {
  static const uint8_t odd[] = {0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF, 0x40};
  for (uint64_t times = 1 + chance(3); times; times--) {
    const size_t at = (size_t)chance(size);
    if (chance(2)) data[at] = odd[chance(sizeof odd)];
    else data[at] = (uint8_t)(data[at] ^ 1u << chance(8));
  }
}

/* All that can be done with some views; whether it works is no matter. Returns 1 when it did. */
static int use_all(const packbuf_view *views, unsigned count, const packbuf_view *manifest, uint8_t *meanwhile,
                   size_t size) {
  packbuf_arena local;
  packbuf_join join;
  packbuf_batch batch;
  packbuf_value *rows, value;
  const packbuf_fragment *list = NULL;
  const char *text = "{\"packbuf_schema\":1}\n{\"field\":\"text\",\"codec\":\"utf8_ragged\"}\n";
  uint64_t listed = count, bytes;
  uint8_t fingerprint[16];
  void *data;
  packbuf_status status = PACKBUF_OK;
  packbuf_arena_init(&local, NULL);
  local.limit = 1 << 24;
  for (unsigned i = 0; i < count; i++) {
    packbuf_drift found;
    (void)packbuf_fingerprint(&views[i], fingerprint, &error);
    (void)packbuf_expect_schema(&views[i], text, strlen(text), &found, &error);
  }
  if (manifest) status = packbuf_manifest_read(manifest, &local, &list, &listed, NULL, &error);
  if (status || listed != count) list = NULL;
  status = packbuf_join_init(&join, list, views, count, chance(2) ? PACKBUF_WIDEN : 0, &local, &error);
  if (meanwhile) spoil(meanwhile, size);
  if (!status && join.rows < 1000) {
    rows = (packbuf_value *)packbuf_arena_alloc(&local, (size_t)join.rows * sizeof *rows + 1, 8);
    (void)packbuf_join_read_rows(&join, 0, join.rows, &local, rows, &error);
    (void)packbuf_join_read_batch_values(&join, &local, &value, &error);
  }
  if (!status) status = packbuf_join_batch(&join, &local, NULL, &batch, &error);
  if (!status) status = packbuf_pack(&batch, &data, &bytes, &error);
  packbuf_arena_free(&local);
  return status == PACKBUF_OK;
}

static void strangers(void) {
  packbuf_fragment list[3];
  whole w;
  buffer made[4];
  unsigned worked = 0, opened = 0;
  packbuf_arena_free(&arena);
  random_state = 77;
  do random_whole(&w, 1);
  while (w.rows < 6);
  made[0] = slice(&w, 0, 4, 0x1FE, 1), made[1] = slice(&w, 4, w.rows - 4, 0x1FE, 1),
  made[2] = slice(&w, 0, w.rows, 1, 1);
  list[0] = fragment_of(&made[0], "a", PACKBUF_APPENDS_ROWS, 0),
  list[1] = fragment_of(&made[1], "b", PACKBUF_APPENDS_ROWS, 4);
  list[2] = fragment_of(&made[2], "c", PACKBUF_APPENDS_FIELDS, 0);
  made[3] = manifest_of(NULL, list, 3);
  for (unsigned round = 0; round < 6000; round++) {
    uint8_t *copies[4];
    packbuf_view views[4];
    const unsigned which = (unsigned)chance(4), later = chance(3) == 0, with_manifest = chance(3) != 0;
    int good = 1;
    random_state += round;
    for (unsigned i = 0; i < 4; i++) {
      copies[i] = (uint8_t *)malloc((size_t)made[i].size);
      memcpy(copies[i], made[i].data, (size_t)made[i].size);
      if (i == which && !later) {
        spoil(copies[i], chance(2) ? (size_t)made[i].view.head_length : (size_t)made[i].size);
        seal_all(copies[i], made[i].size);
      }
      good &= packbuf_open(&views[i], copies[i], made[i].size, 0, NULL, &error) == PACKBUF_OK;
    }
    opened += (unsigned)good;
    if (good)
      worked += (unsigned)use_all(views, with_manifest ? 3 : 2, with_manifest ? &views[3] : NULL,
                                  later ? copies[which] : NULL, (size_t)made[which].size);
    for (unsigned i = 0; i < 4; i++) free(copies[i]);
  }
  tap_ok(opened > 1000 && worked > 100,
         "spoilt fragments and manifests, before and after they are joined: %u opened, %u went through", opened,
         worked);
}

int main(void) {
  packbuf_arena_init(&arena, NULL);
  sha256();
  schema_text();
  drift();
  manifests();
  hostile_manifests();
  join_checks();
  random_splits(1);
  random_splits(0);
  widening();
  kept();
  ragged();
  dense_ranks();
  no_memory();
  join_limits();
  changing_type();
  strangers();
  packbuf_arena_free(&arena);
  return tap_plan_done();
}
