/* How a batch is stored: what a schema and the options ask for, which buffers are constants, sequences, aliases or
 * inline, and runs that are long. */
#include "../packbuf.h"
#include "bytes.h"
#include "trips.h"

/* ---- schema ---- */

static packbuf_schema schema_of(const char *path, packbuf_codec codec, packbuf_dtype dtype, unsigned flags) {
  packbuf_schema schema;
  memset(&schema, 0, sizeof schema);
  schema.path = path;
  schema.codec = codec;
  schema.dtype = dtype;
  schema.flags = flags;
  return schema;
}

/* Measures two rows and a batch value under one schema entry, and another that keeps "kept" whole. */
static packbuf_status measure_under(packbuf_schema entry, packbuf_error *error) {
  static const packbuf_dtype any = {0, 0, 0};
  packbuf_options options = packbuf_default_options();
  packbuf_schema schemas[2];
  packbuf_value *rows, value = packbuf_int(3);
  packbuf_status status;
  uint64_t size;
  size_t count;
  mv_trip trip;
  schemas[0] = entry;
  schemas[1] = schema_of("kept", PACKBUF_CODEC_JSON_RAGGED, any, 0);
  options.schemas = schemas;
  options.schema_count = 2;
  rows = mv_column("{\"a\" {\"x.y\" 1} \"kept\" {\"k\" 1}} {\"a\" {\"l\" [{\"z\" 2}]} \"kept\" {}}", &count);
  mv_trip_begin(&trip, count, &options);
  status = packbuf_add_rows(&trip.batch, rows, error);
  if (!status) status = packbuf_add_batch_value(&trip.batch, "v", &value, error);
  if (!status) status = packbuf_measure(&trip.batch, &size, error);
  mv_trip_end(&trip);
  return status;
}

static void test_schema_paths(void) {
  static const struct {
    const char *path;
    unsigned batch_value;
    int found;
  } cases[] = {{"a", 0, 1},   {"a.x\\.y", 0, 1},  {"a.l[0].z", 0, 1}, {"v", 1, 1},     {"kept", 0, 1},
               {"a.x", 0, 0}, {"a.l[1].z", 0, 0}, {"v", 0, 0},        {"a", 1, 0},     {"kept.k", 0, 0},
               {"A", 0, 0},   {"", 0, 0},         {"a.", 0, 0},       {"a.l[0", 0, 0}, {"a.l[0].zz", 0, 0}};
  static const packbuf_dtype any = {0, 0, 0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    packbuf_schema entry = schema_of(cases[i].path, PACKBUF_CODEC_AUTO, any, 0);
    packbuf_error error;
    packbuf_status status;
    int lets;
    entry.batch_value = (uint8_t)cases[i].batch_value;
    status = measure_under(entry, &error);
    entry.flags = PACKBUF_IF_PRESENT;
    lets = measure_under(entry, NULL) == PACKBUF_OK;
    tap_ok(lets && (cases[i].found ? status == PACKBUF_OK
                                   : status == PACKBUF_NOT_FOUND && strcmp(error.path, cases[i].path) == 0),
           "schema of %s %s: %s", cases[i].batch_value ? "batch value" : "field", cases[i].path,
           cases[i].found ? "found" : "NOT_FOUND, with the path; nothing where it need not be there");
  }
}

/* Attributes of media are kept as they are: an entry for one is refused, which would do nothing. */
static void test_schema_of_media(void) {
  static const struct {
    const char *path;
    unsigned flags;
    packbuf_status status;
  } cases[] = {{"m", 0, PACKBUF_OK},
               {"m.mime", 0, PACKBUF_INVALID_ARGUMENT},
               {"m.height", PACKBUF_IF_PRESENT, PACKBUF_INVALID_ARGUMENT},
               {"l.height", PACKBUF_KEEP_PLAIN, PACKBUF_INVALID_ARGUMENT},
               {"m.width", 0, PACKBUF_NOT_FOUND},
               {"m.width", PACKBUF_IF_PRESENT, PACKBUF_OK}};
  static const packbuf_dtype any = {0, 0, 0};
  packbuf_media media = packbuf_media_of("png", 3, "image/png");
  packbuf_value items[2], image, list;
  media.height = 2;
  items[0] = items[1] = image = packbuf_media_value(&media);
  list = packbuf_list(items, 2);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    packbuf_schema entry = schema_of(cases[i].path, PACKBUF_CODEC_AUTO, any, cases[i].flags);
    packbuf_options options = packbuf_default_options();
    packbuf_error error;
    packbuf_status status;
    uint64_t size;
    mv_trip trip;
    options.schemas = &entry;
    options.schema_count = 1;
    mv_trip_begin(&trip, 1, &options);
    status = packbuf_add_values(&trip.batch, "m", &image, &error);
    if (!status) status = packbuf_add_values(&trip.batch, "l", &list, &error);
    if (!status) status = packbuf_measure(&trip.batch, &size, &error);
    tap_ok(status == cases[i].status && (!status || strcmp(error.path, cases[i].path) == 0), "schema of %s of media: %s",
           cases[i].path, packbuf_status_name(status));
    mv_trip_end(&trip);
  }
}

static void test_schema(void) {
  static const int64_t sevens[40] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
                                     7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
  packbuf_dtype any = {0, 0, 0};
  int64_t counts[40];
  uint64_t forty[1] = {40}, size;
  uint8_t validity[5] = {0xff, 0xfb, 0xff, 0xff, 0xff};
  packbuf_schema schema[2];
  packbuf_options options = packbuf_default_options();
  packbuf_tensor t, rows[40];
  packbuf_text texts[40];
  packbuf_value values[40];
  packbuf_node node;
  packbuf_error error;
  size_t count;
  mv_trip trip;
  const void *typed;
  packbuf_buffer buffer;
  for (int i = 0; i < 40; i++) counts[i] = i * i;
  options.schemas = schema;
  options.schema_count = 1;

  schema[0] = schema_of("x", PACKBUF_CODEC_AUTO, any, PACKBUF_KEEP_PLAIN);
  t = array_of(sevens, i64(), 1, forty, NULL, 0);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "w", &t, NULL, NULL);
  packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
  tap_ok(packs(&trip) && storage(&trip, "w", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT &&
             storage(&trip, "x", PACKBUF_ROLE_DATA) == PACKBUF_STORED,
         "keep plain: a constant is stored");
  find(&trip, "x", &node);
  packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &buffer, NULL);
  tap_ok(packbuf_get_typed(&buffer, i64(), &typed, &error) == (bytes_big_endian() ? PACKBUF_NOT_STORED
                                                               : buffer.offset % 8 || (uintptr_t)trip.data % 8
                                                                   ? PACKBUF_UNALIGNED
                                                                   : PACKBUF_OK),
         "and can be read in place");
  mv_trip_end(&trip);
  t.data = counts;
  schema[0].path = "b";
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
  packbuf_add_tensor(&trip.batch, "b", &t, NULL, NULL);
  packbuf_add_tensor(&trip.batch, "c", &t, NULL, NULL);
  tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
             storage(&trip, "b", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
             storage(&trip, "c", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS,
         "keep plain: no alias of an earlier field, and others are");
  mv_trip_end(&trip);
  schema[0].path = "a";
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
  packbuf_add_tensor(&trip.batch, "b", &t, NULL, NULL);
  tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
             storage(&trip, "b", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS,
         "a later field may be an alias of one that is kept plain (section 19)");
  mv_trip_end(&trip);

  schema[0] = schema_of("x", PACKBUF_CODEC_AUTO, any, PACKBUF_REFUSE_NULL);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "x", &t, validity, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 10 &&
             strcmp(error.path, "x") == 0,
         "refuse null: NOT_NULLABLE, row 10 of x");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
  tap_ok(packs(&trip), "refuse null: without nulls it packs");
  mv_trip_end(&trip);
  for (int i = 0; i < 40; i++) texts[i] = text_of(i == 39 ? NULL : "text");
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_strings(&trip.batch, "x", texts, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 39,
         "refuse null: strings, row 39");
  mv_trip_end(&trip);
  memset(rows, 0, sizeof rows);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensors(&trip.batch, "x", rows, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 0,
         "refuse null: arrays that are all null, row 0");
  mv_trip_end(&trip);
  schema[0].path = "x.k[0].m";
  for (int i = 0; i < 40; i++) values[i] = *mv_column(i == 5 ? "{\"k\" [{}]}" : "{\"k\" [{\"m\" 1}]}", &count);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_values(&trip.batch, "x", values, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_NULLABLE && error.row == 5 &&
             strcmp(error.path, "x.k[0].m") == 0,
         "refuse null: a nested cell that is missing, row 5 of x.k[0].m");
  mv_trip_end(&trip);
  schema[0] = schema_of("x.k[0].m", PACKBUF_CODEC_AUTO, i32(), 0);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_values(&trip.batch, "x", values, NULL);
  tap_ok(packs(&trip) && find(&trip, "x.k[0].m", &node) && node.dtype.bits == 32 && is(&trip, "x", 5, "{\"k\" [{}]}") &&
             is(&trip, "x", 6, "{\"k\" [{\"m\" 1}]}"),
         "a nested path: int32");
  mv_trip_end(&trip);
  schema[0].dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 8);
  values[7] = *mv_column("{\"k\" [{\"m\" 128}]}", &count);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_values(&trip.batch, "x", values, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE && error.row == 7,
         "128 as int8: UNENCODABLE, row 7");
  mv_trip_end(&trip);

  schema[0] = schema_of("x", PACKBUF_CODEC_AUTO, any, 0);
  schema[0].logical_type = 1;
  schema[0].parameter = "us";
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
  tap_ok(packs(&trip) && find(&trip, "x", &node) && node.logical_type == 1 &&
             mv_same_bytes(node.parameter.data, node.parameter.size, "us", 2) && is(&trip, "x", 6, "36"),
         "a timestamp in microseconds");
  mv_trip_end(&trip);
  schema[0].parameter = "\xff";
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_BAD_UTF8, "a parameter that is not UTF-8: BAD_UTF8");
  mv_trip_end(&trip);

  schema[0] = schema_of("x", PACKBUF_CODEC_UTF8_RAGGED, any, 0);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_bytes(&trip.batch, "x", texts, NULL);
  tap_ok(packs(&trip) && is(&trip, "x", 0, "\"text\"") && is(&trip, "x", 39, "null"), "bytes as strings");
  mv_trip_end(&trip);
  texts[3] = text_of("\xff");
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_bytes(&trip.batch, "x", texts, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_BAD_UTF8 && error.row == 3,
         "bytes as strings, not UTF-8: BAD_UTF8, row 3");
  mv_trip_end(&trip);
  schema[0].codec = PACKBUF_CODEC_BYTES_RAGGED;
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_strings(&trip.batch, "x", texts, NULL);
  tap_ok(packs(&trip) && is(&trip, "x", 3, "b\"\\xff\""), "strings as bytes");
  mv_trip_end(&trip);
  schema[0].codec = PACKBUF_CODEC_JSON_RAGGED;
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_strings(&trip.batch, "x", texts, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE && strcmp(error.path, "x") == 0,
         "strings as JSON: UNENCODABLE");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE, "an array as JSON: UNENCODABLE");
  mv_trip_end(&trip);
  schema[0] = schema_of("x", PACKBUF_CODEC_NDARRAY, i32(), 0);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE, "an int64 array as int32: UNENCODABLE");
  mv_trip_end(&trip);
  schema[0] = schema_of("x", PACKBUF_CODEC_MSGPACK_RAGGED, any, 0);
  for (int i = 0; i < 40; i++) values[i] = *mv_column("{\"k\" [{\"m\" 1}]}", &count);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_values(&trip.batch, "x", values, NULL);
  tap_ok(packs(&trip) && find(&trip, "x", &node) && node.codec == PACKBUF_CODEC_MSGPACK_RAGGED &&
             is(&trip, "x", 0, "{\"k\" [{\"m\" 1}]}"),
         "a codec stops expansion");
  mv_trip_end(&trip);
  schema[0] = schema_of("x", PACKBUF_CODEC_UTF8_RAGGED, any, 0);
  for (int i = 0; i < 40; i++) values[i] = i == 17 ? packbuf_int(1) : packbuf_string("s");
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_values(&trip.batch, "x", values, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_UNENCODABLE && error.row == 17,
         "a number in a column of strings: UNENCODABLE, row 17");
  mv_trip_end(&trip);
  schema[0] = schema_of("v", PACKBUF_CODEC_MSGPACK_RAGGED, any, 0);
  schema[0].batch_value = 1;
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "v", &t, NULL, NULL);
  packbuf_add_batch_value(&trip.batch, "v", &values[0], NULL);
  tap_ok(packs(&trip) && packbuf_find(&trip.view, 1, "v", &node, NULL) == PACKBUF_OK &&
             node.codec == PACKBUF_CODEC_MSGPACK_RAGGED && find(&trip, "v", &node) &&
             node.codec == PACKBUF_CODEC_NDARRAY,
         "a schema of a batch value leaves the field of that name alone");
  mv_trip_end(&trip);
  schema[0] = schema_of("absent", PACKBUF_CODEC_MSGPACK_RAGGED, any, 0);
  mv_trip_begin(&trip, 40, &options);
  packbuf_add_tensor(&trip.batch, "v", &t, NULL, NULL);
  tap_ok(packbuf_measure(&trip.batch, &size, &error) == PACKBUF_NOT_FOUND && strcmp(error.path, "absent") == 0,
         "a schema of a path that does not exist: NOT_FOUND, with the path");
  mv_trip_end(&trip);
  test_schema_paths();
  test_schema_of_media();
  mv_free();
}

/* ---- how buffers are stored ---- */

static void test_storage(void) {
  enum { N = 1000 };
  int64_t *squares = (int64_t *)mv_alloc(N * 8), *ascending = (int64_t *)mv_alloc(N * 8),
          *nearly = (int64_t *)mv_alloc(N * 8), *scattered = (int64_t *)mv_alloc(N * 24);
  int32_t *offsets = (int32_t *)mv_alloc((N + 1) * 4);
  uint64_t n[2] = {N, 1}, two[1] = {2}, three[1] = {3};
  int64_t stride[1] = {24}, reverse[1] = {-8};
  float zeros[2] = {0.0f, -0.0f}, signs[N];
  packbuf_text same[N], empty[N];
  packbuf_value json[N], odd[N];
  packbuf_node node;
  packbuf_buffer a, b;
  packbuf_tensor t;
  packbuf_ragged r;
  mv_trip trip;
  for (int i = 0; i < N; i++) {
    squares[i] = scattered[3 * i] = (int64_t)i * i;
    nearly[i] = squares[i] + (i == N - 1);
    ascending[i] = 5 + 3 * i;
    offsets[i] = i;
    signs[i] = zeros[i == N - 1];
    same[i] = text_of("xx");
    empty[i] = text_of("");
    json[i] = packbuf_list(NULL, 0);
    odd[i] = i % 2 ? packbuf_int(1) : packbuf_string("x");
  }
  offsets[N] = N;
  memset(&r, 0, sizeof r);
  r.data = squares;
  r.dtype = i64();
  r.offset_bits = 32;
  r.offsets = offsets;
  r.items = N;
  mv_trip_begin(&trip, N, NULL);
  t = array_of(squares, i64(), 1, n, NULL, 0);
  packbuf_add_tensor(&trip.batch, "squares", &t, NULL, NULL);
  t = array_of(scattered, i64(), 1, n, stride, 0);
  packbuf_add_tensor(&trip.batch, "scattered", &t, NULL, NULL);
  t = array_of(squares + N - 1, i64(), 1, n, reverse, 0);
  packbuf_add_tensor(&trip.batch, "reverse", &t, NULL, NULL);
  t = array_of(squares, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64), 1, n, NULL, 0);
  packbuf_add_tensor(&trip.batch, "unsigned", &t, NULL, NULL);
  t = array_of(squares, i64(), 2, n, NULL, PACKBUF_FORM_TENSOR);
  packbuf_add_tensor(&trip.batch, "column", &t, NULL, NULL);
  t = array_of(nearly, i64(), 1, n, NULL, 0);
  packbuf_add_tensor(&trip.batch, "nearly", &t, NULL, NULL);
  t = array_of(ascending, i64(), 1, n, NULL, 0);
  packbuf_add_tensor(&trip.batch, "ascending", &t, NULL, NULL);
  t = array_of(signs, f32(), 1, n, NULL, 0);
  packbuf_add_tensor(&trip.batch, "signs", &t, NULL, NULL);
  packbuf_add_ragged(&trip.batch, "ragged", &r, NULL);
  packbuf_add_strings(&trip.batch, "same", same, NULL);
  packbuf_add_strings(&trip.batch, "empty", empty, NULL);
  packbuf_add_strings(&trip.batch, "again", same, NULL);
  packbuf_add_values(&trip.batch, "lists", json, NULL);
  packbuf_add_values(&trip.batch, "json", odd, NULL);
  packbuf_add_values(&trip.batch, "json again", odd, NULL);
  if (tap_ok(packs(&trip), "a batch of every storage")) {
    tap_ok(storage(&trip, "squares", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "numbers are stored");
    tap_ok(storage(&trip, "scattered", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS &&
               storage(&trip, "column", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS &&
               storage(&trip, "ragged", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS,
           "equal elements are an alias: strided, of another shape, of another codec");
    find(&trip, "squares", &node);
    packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &a, NULL);
    find(&trip, "scattered", &node);
    packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &b, NULL);
    tap_ok(a.offset == b.offset && a.length == b.length && b.alias_of == a.index && a.bytes == b.bytes,
           "an alias lies where the original does");
    tap_ok(storage(&trip, "reverse", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
               storage(&trip, "unsigned", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
               storage(&trip, "nearly", PACKBUF_ROLE_DATA) == PACKBUF_STORED,
           "other order, other dtype, another last element: stored");
    tap_ok(storage(&trip, "ascending", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "data are never a sequence");
    tap_ok(storage(&trip, "signs", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "0.0 and -0.0 are no constant");
    tap_ok(storage(&trip, "ragged", PACKBUF_ROLE_OFFSETS) == PACKBUF_SEQUENCE,
           "offsets of rows of one length are a sequence");
    tap_ok(storage(&trip, "empty", PACKBUF_ROLE_OFFSETS) == PACKBUF_CONSTANT &&
               storage(&trip, "empty", PACKBUF_ROLE_DATA) == PACKBUF_INLINE,
           "offsets of empty rows are a constant, no data are inline");
    tap_ok(storage(&trip, "same", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
               storage(&trip, "again", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS &&
               storage(&trip, "again", PACKBUF_ROLE_OFFSETS) == PACKBUF_SEQUENCE,
           "text is no constant, so that cells can be read in place, but may be an alias");
    tap_ok(storage(&trip, "json", PACKBUF_ROLE_DATA) == PACKBUF_STORED &&
               storage(&trip, "json again", PACKBUF_ROLE_DATA) == PACKBUF_STORED,
           "JSON is neither");
    tap_ok(storage(&trip, "lists", PACKBUF_ROLE_LENGTHS) == PACKBUF_CONSTANT, "lengths of empty lists are a constant");
    tap_ok(is(&trip, "same", N - 1, "\"xx\"") && is(&trip, "again", 0, "\"xx\"") && is(&trip, "empty", 9, "\"\"") &&
               is(&trip, "ascending", 999, "3002") && is(&trip, "scattered", 999, "998001") &&
               is(&trip, "lists", 7, "[]"),
           "all read alike");
  }
  mv_trip_end(&trip);

  mv_trip_begin(&trip, 2, NULL);
  t = array_of(squares, i64(), 1, two, NULL, 0);
  packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
  tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_INLINE, "16 bytes are inline");
  mv_trip_end(&trip);
  mv_trip_begin(&trip, 3, NULL);
  t = array_of(squares, i64(), 1, three, NULL, 0);
  packbuf_add_tensor(&trip.batch, "a", &t, NULL, NULL);
  tap_ok(packs(&trip) && storage(&trip, "a", PACKBUF_ROLE_DATA) == PACKBUF_STORED, "24 are not");
  mv_trip_end(&trip);
  {
    uint8_t bitmap[N / 8];
    memset(bitmap, 0, sizeof bitmap);
    mv_trip_begin(&trip, N, NULL);
    t = array_of(squares, i64(), 1, n, NULL, 0);
    packbuf_add_tensor(&trip.batch, "none", &t, bitmap, NULL);
    memset(bitmap, 0xff, sizeof bitmap);
    tap_ok(packs(&trip) == 1, "a validity that says all are there is no validity");
    mv_trip_end(&trip);
    mv_trip_begin(&trip, N, NULL);
    packbuf_add_tensor(&trip.batch, "all", &t, bitmap, NULL);
    tap_ok(packs(&trip) && storage(&trip, "all", PACKBUF_ROLE_VALIDITY) == 0, "it is left out");
    mv_trip_end(&trip);
    memset(bitmap, 0, sizeof bitmap);
    mv_trip_begin(&trip, N, NULL);
    packbuf_add_tensor(&trip.batch, "none", &t, bitmap, NULL);
    tap_ok(packs(&trip) && storage(&trip, "none", PACKBUF_ROLE_VALIDITY) == PACKBUF_CONSTANT &&
               storage(&trip, "none", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT && is(&trip, "none", 999, "null"),
           "all null: two constants");
    mv_trip_end(&trip);
  }
  mv_free();
}

static int all_zero(const uint8_t *bytes, uint64_t from, uint64_t to) {
  for (; from < to; from++)
    if (bytes[from]) return 0;
  return 1;
}

static void test_options(void) {
  enum { N = 20000 };
  packbuf_options options = packbuf_default_options();
  int64_t *squares = (int64_t *)mv_alloc(N * 8);
  uint64_t n[1] = {N}, sizes[2];
  packbuf_tensor t = array_of(squares, i64(), 1, n, NULL, 0);
  packbuf_text *texts = (packbuf_text *)mv_alloc(N * sizeof *texts);
  mv_trip trip;
  for (int i = 0; i < N; i++) {
    squares[i] = (int64_t)i * i;
    texts[i] = text_of(i % 3 ? "a" : "bcd");
  }
  for (unsigned exponent = 6; exponent <= 12; exponent++) {
    uint64_t end = 0;
    int good = 1;
    options.alignment_exponent = (uint8_t)exponent;
    mv_trip_begin(&trip, N, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    packbuf_add_strings(&trip.batch, "s", texts, NULL);
    good = packs(&trip);
    for (uint32_t i = 0; i < trip.view.buffer_count && good; i++) {
      packbuf_buffer b;
      packbuf_get_buffer_at(&trip.view, i, &b, NULL);
      if (b.storage != PACKBUF_STORED) continue;
      good = b.offset % ((uint64_t)1 << exponent) == 0;
      if (b.role == PACKBUF_ROLE_DATA) {
        good = good && b.offset >= end;
        end = b.offset + b.length;
      }
    }
    tap_ok(good && trip.view.alignment_exponent == exponent && trip.size % ((uint64_t)1 << exponent) == 0 &&
               all_zero(trip.data, end, trip.size) && is(&trip, "x", 999, "998001"),
           "alignment %u", 1u << exponent);
    mv_trip_end(&trip);
  }
  options = packbuf_default_options();
  for (unsigned checksums = 0; checksums < 2; checksums++) {
    options.data_checksums = (uint8_t)checksums;
    mv_trip_begin(&trip, N, &options);
    packbuf_add_tensor(&trip.batch, "x", &t, NULL, NULL);
    packbuf_add_strings(&trip.batch, "s", texts, NULL);
    tap_ok(packs(&trip) && (trip.view.optional_features & 1) == checksums && is(&trip, "s", 19998, "\"bcd\""),
           checksums ? "with data checksums" : "without data checksums");
    sizes[checksums] = trip.size;
    if (trip.size > 20000) {
      trip.data[trip.size - 20000] ^= 1;
      tap_ok(packbuf_verify(&trip.view, PACKBUF_LEVEL_FULL, &trip.error) ==
                 (checksums ? PACKBUF_DATA_CHECKSUM : PACKBUF_OK),
             checksums ? "a wrong bit is found" : "a wrong bit is not found");
    }
    mv_trip_end(&trip);
  }
  tap_ok(sizes[1] - sizes[0] == 64, "checksums of %d bytes of data take %d bytes", N * 8 + N * 5 / 3,
         (int)(sizes[1] - sizes[0]));
  options = packbuf_default_options();
  for (unsigned i = 0; i < 16; i++) options.row_order_token[i] = (uint8_t)(i + 1);
  mv_trip_begin(&trip, N, &options);
  tap_ok(packs(&trip) && memcmp(trip.view.row_order_token, options.row_order_token, 16) == 0, "the row-order token");
  mv_trip_end(&trip);
  mv_free();
}

/* Broadcast dimensions: constant exactly when all that they repeat is. */
static void test_broadcast(void) {
  static const uint8_t bytes[6] = {7, 7, 7, 7, 7, 8};
  int64_t strides[3] = {0, 1, 0};
  uint64_t shape[3] = {100, 5, 40};
  packbuf_tensor t = array_of(bytes, u8(), 3, shape, strides, 0);
  packbuf_options options = packbuf_default_options();
  mv_trip trip;
  options.row_sharing = 0;
  mv_trip_begin(&trip, 100, &options);
  packbuf_add_tensor(&trip.batch, "same", &t, NULL, NULL);
  t.data = bytes + 1;
  packbuf_add_tensor(&trip.batch, "last differs", &t, NULL, NULL);
  tap_ok(packs(&trip) && storage(&trip, "same", PACKBUF_ROLE_DATA) == PACKBUF_CONSTANT &&
             storage(&trip, "last differs", PACKBUF_ROLE_DATA) == PACKBUF_STORED,
         "dimensions of stride 0 are looked at once, the others all");
  mv_trip_end(&trip);
}

/* Of many buffers whose first bytes are equal, the first with all bytes equal is the one that is stored. */
static void test_many_alike(void) {
  enum { FIELDS = 600, LONG = 100 };
  uint64_t *values = (uint64_t *)mv_alloc((size_t)FIELDS * LONG * 8), shape[1] = {LONG};
  char *names = (char *)mv_alloc(FIELDS * 12);
  packbuf_node node;
  packbuf_buffer a, b;
  int good = 1;
  mv_trip trip;
  mv_trip_begin(&trip, LONG, NULL);
  for (unsigned i = 0; i < FIELDS; i++) {
    packbuf_tensor t = array_of(values + i * LONG, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64), 1, shape, NULL, 0);
    for (unsigned k = 0; k < LONG; k++) values[i * LONG + k] = k * k + (i % 3 == 0 && k < 4 ? i % (FIELDS / 2) : 0);
    values[i * LONG + LONG - 1] = i % (FIELDS / 2); /* the last tells them apart, and each comes twice */
    snprintf(names + i * 12, 12, "%u", i);
    packbuf_add_tensor(&trip.batch, names + i * 12, &t, NULL, NULL);
  }
  if (tap_ok(packs(&trip), "%d fields, many alike", FIELDS))
    for (unsigned i = 0; i < FIELDS; i++) {
      good &= !packbuf_get_node(&trip.view, i, &node, NULL) &&
              !packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &b, NULL) &&
              b.storage == (i < FIELDS / 2 ? PACKBUF_STORED : PACKBUF_ALIAS);
      good &= !packbuf_get_node(&trip.view, i % (FIELDS / 2), &node, NULL) &&
              !packbuf_get_buffer(&trip.view, &node, PACKBUF_ROLE_DATA, 0, &a, NULL) && a.offset == b.offset;
    }
  tap_ok(good, "each second one is an alias of its first");
  mv_trip_end(&trip);
}

/* ---- long runs: 64 KiB checksums and non-temporal stores across every kind of run ---- */

static void test_long(void) {
  size_t rows = 3, bytes[3] = {((size_t)17 << 20) + 13, 65536 - 5, 100001};
  packbuf_text texts[3];
  uint64_t shape[2] = {3, 0};
  packbuf_tensor t;
  mv_trip trip;
  uint8_t *blob = (uint8_t *)mv_alloc(bytes[0]);
  int good;
  for (size_t i = 0; i < bytes[0]; i++) blob[i] = (uint8_t)(i * 2654435761u >> 24);
  for (size_t i = 0; i < rows; i++) {
    texts[i].data = (const char *)blob + i;
    texts[i].size = bytes[i];
  }
  shape[1] = 30000;
  t = array_of(blob + 1, u8(), 2, shape, NULL, PACKBUF_FORM_TENSOR);
  for (unsigned checksums = 0; checksums < 2; checksums++) {
    packbuf_options options = packbuf_default_options();
    options.data_checksums = (uint8_t)checksums;
    mv_trip_begin(&trip, rows, &options);
    good = !packbuf_add_bytes(&trip.batch, "b", texts, &trip.error) &&
           !packbuf_add_tensor(&trip.batch, "t", &t, NULL, &trip.error) && packs(&trip);
    for (size_t i = 0; i < rows && good; i++) {
      packbuf_value got = cell(&trip, "b", i), want = packbuf_bytes(texts[i].data, texts[i].size);
      good = mv_same(&got, &want);
    }
    good = good && memcmp(cell(&trip, "t", 2).as.tensor->data, blob + 60001, 30000) == 0;
    tap_ok(good, "17 MiB in unaligned runs, %s checksums", checksums ? "with" : "without");
    if (checksums && good) { /* a bit anywhere is found */
      unsigned found = 0;
      for (unsigned i = 0; i < 20; i++) {
        uint64_t at = trip.view.head_length + trip.view.index_length +
                      mv_random() % (trip.size - trip.view.head_length - trip.view.index_length);
        trip.data[at] ^= 4;
        found += packbuf_verify(&trip.view, PACKBUF_LEVEL_FULL, &trip.error) == PACKBUF_DATA_CHECKSUM;
        trip.data[at] ^= 4;
      }
      tap_ok(found == 20, "20 flipped bits in the data are found");
    }
    mv_trip_end(&trip);
  }
  mv_free();
}

/* Ten long columns, windows into zeros before a 1, so that all begin alike; the last is the one before it. */
static void test_long_alike(void) {
  static const uint64_t rows = 9000;
  static const char *const names[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
  static int64_t numbers[9009];
  unsigned stored = 0;
  mv_trip trip;
  numbers[8999] = 1;
  mv_trip_begin(&trip, rows, NULL);
  for (unsigned i = 0; i < 10; i++) {
    packbuf_tensor t = array_of(numbers + (i < 9 ? i : 8), i64(), 1, &rows, NULL, 0);
    packbuf_add_tensor(&trip.batch, names[i], &t, NULL, NULL);
  }
  if (tap_ok(packs(&trip), "long columns that begin alike")) {
    for (unsigned i = 0; i < 9; i++) stored += storage(&trip, names[i], PACKBUF_ROLE_DATA) == PACKBUF_STORED;
    tap_ok(stored == 9 && storage(&trip, "9", PACKBUF_ROLE_DATA) == PACKBUF_ALIAS,
           "those that differ are stored, one that equals the ninth is its alias");
  }
  mv_trip_end(&trip);
}

int main(void) {
  test_schema();
  test_storage();
  test_options();
  test_broadcast();
  test_many_alike();
  test_long_alike();
  test_long();
  mv_free();
  return tap_plan_done();
}
