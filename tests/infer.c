/* Structure expansion and codec inference: what sections 17 and 18 of the spec say, schema entries, errors with their
 * row and path, memory, and size. */
#include "internals.h"
#include "failing.h"
#include "tap.h"
#include "values.h"
#include <time.h>

/* ---- helpers ---- */

static packbuf_arena arena;
static packbuf_error error;
static packbuf_inference result;

static packbuf_status run(packbuf_value column) {
  memset(&error, 0, sizeof error);
  memset(&result, 0, sizeof result);
  return packbuf_infer(column.as.list.items, column.as.list.count, "r", PACKBUF_STRICT, &arena, &result, &error);
}

static packbuf_status infer(const char *notation) { return run(values_of(notation, &arena)); }

static const packbuf_inferred *find(const char *path) {
  for (uint32_t i = 0; i < result.count; i++)
    if (strcmp(result.nodes[i].path, path) == 0) return &result.nodes[i];
  return NULL;
}

/* "path codec dtype" of a leaf, "path{}" or "path[]" of a node. */
static const char *shown(const packbuf_inferred *node) {
  static char text[256];
  const char *dtype;
  if (!node) return "(none)";
  dtype = packbuf_dtype_name(node->dtype);
  if (node->kind != PACKBUF_LEAF)
    snprintf(text, sizeof text, "%.200s%s", node->path, node->kind == PACKBUF_NODE_DICT ? "{}" : "[]");
  else
    snprintf(text, sizeof text, "%.200s %s%s%s%s", node->path, packbuf_codec_name(node->codec), dtype ? " " : "",
             dtype ? dtype : "", node->typed ? "*" : "");
  return text;
}

/* The first node of a column. */
static void is(const char *notation, const char *wanted) {
  packbuf_status status = infer(notation);
  const char *got = status ? packbuf_status_name(status) : shown(&result.nodes[0]);
  if (!tap_ok(strcmp(got, wanted) == 0, "%.60s is %s", notation, wanted)) tap_note("got %s", got);
}

static void fails(const char *notation, packbuf_status wanted, uint64_t row, uint64_t offset, const char *path) {
  packbuf_status status = infer(notation);
  int same = status == wanted && error.code == wanted && error.row == row && error.offset == offset &&
             strcmp(error.path, path) == 0;
  if (!tap_ok(same, "%.60s fails with %s at %s", notation, packbuf_status_name(wanted), path))
    tap_note("got %s row %llu offset %llu path %s: %s", packbuf_status_name(status), (unsigned long long)error.row,
             (unsigned long long)error.offset, error.path, error.message ? error.message : "");
}

/* A column under a schema. The root is `f`. */
static packbuf_i_node top;

static packbuf_status obey(const char *notation, const packbuf_schema *schemas, size_t count) {
  packbuf_i_expand expand;
  packbuf_value column = values_of(notation, &arena);
  memset(&expand, 0, sizeof expand);
  memset(&top, 0, sizeof top);
  memset(&error, 0, sizeof error);
  expand.arena = &arena;
  expand.schemas = schemas;
  expand.schema_count = count;
  expand.error = &error;
  top.name = "f";
  top.name_size = 1;
  top.rows = top.cells.count = column.as.list.count;
  top.cells.values = column.as.list.items;
  return packbuf_i_expand_node(&expand, &top, 0);
}

static packbuf_schema schema_of(const char *path, packbuf_codec codec, const char *dtype) {
  packbuf_schema schema;
  memset(&schema, 0, sizeof schema);
  schema.path = path;
  schema.codec = codec;
  if (dtype) packbuf_dtype_parse(dtype, &schema.dtype);
  return schema;
}

static void obeys(const char *notation, packbuf_codec codec, const char *dtype, packbuf_codec wanted,
                  const char *wanted_dtype, int typed) {
  packbuf_schema schema = schema_of("f", codec, dtype);
  packbuf_status status = obey(notation, &schema, 1);
  const char *name = packbuf_dtype_name(top.dtype);
  int same = !status && top.kind == PACKBUF_LEAF && top.codec == wanted &&
             strcmp(name ? name : "", wanted_dtype) == 0 && top.typed == typed;
  if (!tap_ok(same, "%.50s as %s %s is %s", notation, codec ? packbuf_codec_name(codec) : "-", dtype ? dtype : "-",
              packbuf_codec_name(wanted)))
    tap_note("got %s: %s; codec %u dtype %s typed %u", packbuf_status_name(status), error.message ? error.message : "",
             top.codec, name ? name : "-", top.typed);
}

static void disobeys(const char *notation, packbuf_codec codec, const char *dtype, uint64_t row) {
  packbuf_schema schema = schema_of("f", codec, dtype);
  packbuf_status status = obey(notation, &schema, 1);
  int same = status == PACKBUF_UNENCODABLE && error.row == row && strcmp(error.path, "f") == 0;
  if (!tap_ok(same, "%.50s does not fit %s %s", notation, codec ? packbuf_codec_name(codec) : "-", dtype ? dtype : "-"))
    tap_note("got %s row %llu path %s", packbuf_status_name(status), (unsigned long long)error.row, error.path);
}

/* ---- structure ---- */

static void test_order(void) {
  tap_ok(!infer("[{\"z\":1,\"a\":2},{\"m\":3,\"a\":4,\"z\":5},None,{\"a\":1,\"b\":2}]") && result.count == 5,
         "four keys");
  tap_ok(find("r.z") == &result.nodes[1] && find("r.a") == &result.nodes[2] && find("r.m") == &result.nodes[3] &&
             find("r.b") == &result.nodes[4],
         "children come in first-seen order");
  tap_ok(result.nodes[0].nulls == 1 && result.nodes[0].present[0] == 11 && result.nodes[0].child_count == 4,
         "the node's row that is null");
  tap_ok(find("r.z")->missing == 1 && find("r.z")->nulls == 1 && find("r.m")->missing == 2 && find("r.b")->missing == 2,
         "missing keys, null parents");
  tap_ok(find("r.b")->parent == 0 && result.nodes[0].parent == UINT32_MAX, "parents");
  is("[{\"a\":1},Missing]", "r{}");
  tap_ok(result.nodes[0].missing == 1 && find("r.a")->nulls == 1 && find("r.a")->missing == 0,
         "a missing parent gives null children");
  is("[{\"a\":Missing},{\"a\":1}]", "r{}");
  tap_ok(find("r.a")->missing == 1 && find("r.a")->nulls == 0, "a key given as missing is missing");
  is("[{},{}]", "r{}");
  tap_ok(result.count == 1 && result.nodes[0].present[0] == 3, "empty dicts: a node without children");
  tap_ok(!infer("[[None,{\"k\":1}],[],None,[{\"k\":2},[1]]]") && strcmp(shown(&result.nodes[0]), "r[]") == 0,
         "a list node");
  tap_ok(result.nodes[0].lengths[0] == 2 && result.nodes[0].lengths[1] == 0 && result.nodes[0].lengths[2] == 0 &&
             result.nodes[0].lengths[3] == 2 && result.nodes[0].present[0] == 11 && find("r[0]")->nulls == 2 &&
             find("r[0]")->missing == 1,
         "lengths, null and missing items");
  tap_ok(strcmp(shown(find("r[1]")), "r[1] json_ragged") == 0, "a dict and a list in one column are JSON");
}

static void test_limits(void) {
  packbuf_value column;
  packbuf_value *rows;
  char path[120];
  is("[keys(64)]", "r{}");
  is("[keys(65)]", "r json_ragged");
  is("[keys(64),{\"another\":1}]", "r json_ragged");
  is("[{\"a\":1}*3000,keys(64)]", "r json_ragged"); /* found after the probe */
  is("[{\"a\":1}*3000,keys(63)]", "r{}");
  tap_ok(find("r.k62")->missing == 3000 && find("r.a")->missing == 1 && result.count == 65,
         "a key that appears late is missing before");
  is("[{\"a\":1}*3000,{1:2}]", "r msgpack_ragged");
  is("[{\"a\":1}*3000,5]", "r json_ragged");
  is("[[None*8]]", "r[]");
  is("[[None*9]]", "r json_ragged");
  is("[[{\"a\":1}*8]]", "r[]");
  is("[[{\"a\":1}*9]]", "r json_ragged");
  is("[[[1]*8]]", "r[]");
  is("[[[1]*9]]", "r typed_ragged int64");
  tap_ok(!infer("[deep(32)]") && result.count == 33 && strcmp(result.nodes[32].path + 63, ".a") == 0,
         "32 nested dicts expand");
  snprintf(path, sizeof path, "r%.66s", ".a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a");
  fails("[deep(33)]", PACKBUF_DEPTH, PACKBUF_NOWHERE, PACKBUF_NOWHERE, path);
  tap_ok(!infer("[deepl(33)]") && result.nodes[32].codec == PACKBUF_CODEC_TYPED_RAGGED,
         "a list of numbers at depth 32 is a leaf");
  fails("[deepl(34)]", PACKBUF_DEPTH, PACKBUF_NOWHERE, PACKBUF_NOWHERE,
        "r[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]");
  is("[{\"\":{\"\":1,\"a.b\":2,\"c[0]\":3,\"d\\\\\":4}}]", "r{}");
  tap_ok(find("r..") && find("r..a\\.b") && find("r..c\\[0]") && find("r..d\\\\"),
         "names are escaped, the empty one too");
  fails("[[1,deepl(511)],{}]", PACKBUF_OK, 0, 0, "");
  fails("[{},[1,deepl(512)]]", PACKBUF_DEPTH, 1, PACKBUF_NOWHERE, "r");
  rows = (packbuf_value *)packbuf_arena_alloc(&arena, 129 * sizeof *rows, 8);
  for (int i = 0; i < 129; i++) rows[i] = values_of("[\"x\"]", &arena);
  column = packbuf_list(rows, 129);
  rows[128] = values_of("[\"x\"#2000000]", &arena);
  tap_ok(!run(column) && result.nodes[0].codec == PACKBUF_CODEC_JSON_RAGGED, "row 128 is not in the sample");
  rows[0] = values_of("[0.5]", &arena);
  tap_ok(!run(column) && result.nodes[0].codec == PACKBUF_CODEC_JSON_RAGGED, "nor when floats are looked at beyond it");
  rows[127] = rows[128];
  tap_ok(!run(column) && result.nodes[0].codec == PACKBUF_CODEC_MSGPACK_RAGGED, "row 127 is");
  rows[0] = packbuf_null();
  rows[1] = packbuf_missing();
  rows[127] = rows[2];
  tap_ok(!run(column) && result.nodes[0].codec == PACKBUF_CODEC_MSGPACK_RAGGED, "absent cells are not counted");
  is("[[\"x\"#1048572]]", "r json_ragged");
  is("[[\"x\"#1048573]]", "r msgpack_ragged");
  is("[[\"x\"#524284],[\"x\"#524284]]", "r json_ragged");
  is("[[\"x\"#524284],[\"x\"#524285]]", "r msgpack_ragged");
}

/* ---- leaves ---- */

static void test_promotion(void) {
  static const char *const table[][2] = {
      {"[True,False]", "r ndarray bool"}, {"[1,2]", "r ndarray int64"}, {"[9223372036854775808]", "r ndarray uint64"},
      {"[-1,9223372036854775808]", "r json_ragged"},
      {"[9223372036854775807,-9223372036854775808]", "r ndarray int64"}, {"[0.5,nan]", "r ndarray float64"},
      {"[True,2]", "r ndarray int64*"}, {"[True,9223372036854775808]", "r ndarray uint64*"},
      {"[True,2.5]", "r ndarray float64*"}, {"[1,2.5]", "r ndarray float64*"},
      {"[9007199254740992,-9007199254740992,0.5]", "r ndarray float64*"}, {"[9007199254740993,0.5]", "r json_ragged"},
      {"[-9007199254740993,0.5]", "r json_ragged"}, {"[True,1,2.5]", "r ndarray float64*"},
      {"[nan1]", "r ndarray float64"}, {"[None,1,Missing]", "r ndarray int64"},
      {"[scalar:float32,scalar:float32]", "r ndarray float32"}, {"[scalar:int8,scalar:uint8]", "r msgpack_ragged"},
      {"[scalar:float32,2.1]", "r msgpack_ragged"}, {"[18446744073709551616,1]", "r json_ragged"},
      {"[18446744073709551616,scalar:int8]", "r msgpack_ragged"}, {"[[True],[2]]", "r typed_ragged int64*"},
      {"[[True],[2.5]]", "r typed_ragged float64*"}, {"[[1],[2.5],[True]]", "r typed_ragged float64*"},
      {"[[1,2],[]]", "r typed_ragged int64"}, {"[[],[]]", "r[]"}, {"[[],None]", "r[]"}, {"[[[]],[[1]]]", "r[]"},
      {"[[[]*9]]", "r json_ragged"}, {"[[[]*9],[1]]", "r typed_ragged int64"}, {"[[1,2.5]]", "r json_ragged"},
      {"[[1],[-1,9223372036854775808]]", "r json_ragged"}, {"[[[1,2]*9]]", "r typed_ragged int64"},
      {"[[[1,2]*9,[3]]]", "r json_ragged"}, {"[array:int64(2),[1,2]]", "r typed_ragged int64*"},
      {"[[1,2],array:uint64(2)]", "r typed_ragged uint64*"}, {"[[-1],array:uint64(2)]", "r msgpack_ragged"},
      {"[array:int64(2),[9223372036854775808]]", "r msgpack_ragged"}, {"[array:int32(2),[1]]", "r msgpack_ragged"},
      {"[array:float64(2),[1.0]]", "r typed_ragged float64*"}, {"[array:float64(2),[1]]", "r msgpack_ragged"},
      {"[array:float32(2),[1.0]]", "r msgpack_ragged"}, {"[array:bool(2),[True]]", "r typed_ragged bool*"},
      {"[array:int64(2),[True]]", "r msgpack_ragged"}, {"[array:int64(2),[True],[1]]", "r msgpack_ragged"},
      {"[array:int8(2),[]]", "r typed_ragged int8*"}, {"[array:float32(0)]", "r typed_ragged float32"},
      {"[array:int8(2),array:int16(2)]", "r msgpack_ragged"}, {"[tensor:int8(2),array:int8(2)]", "r msgpack_ragged"},
      {"[tensor:int64(2),[1]]", "r msgpack_ragged"},
      {"[tensor:int64(2),tensor:int64(2,2),tensor:int64()]", "r ragged_tensor int64"},
      {"[tensor:int8(1),tensor:int16(1)]", "r msgpack_ragged"},
      {"[[tensor:int8(1)],[tensor:int8(1)]]", "r msgpack_ragged"}, {"[[b\"a\",media],[]]", "r media_list_ragged*"},
      {"[[b\"a\"],[b\"b\"],None]", "r media_list_ragged"}, {"[[b\"a\"],[1]]", "r msgpack_ragged"},
      {"[[1],[b\"a\"]]", "r msgpack_ragged"}, {"[b\"a\",\"a\"]", "r msgpack_ragged"},
      {"[media,media:image/png]", "r media_bytes"}, {"[media,b\"a\"]", "r msgpack_ragged"},
      {"[opaque:a,opaque:a]", "r opaque_ragged"}, {"[opaque:a,opaque:b]", "r msgpack_ragged"},
      {"[opaque:a,1]", "r msgpack_ragged"}, {"[\"a\",1,[1],{\"k\":None}]", "r json_ragged"},
      {"[\"a\",nan]", "r json_ragged"}, {"[\"a\",nan1]", "r msgpack_ragged"}, {"[[\"a\",nan1]]", "r msgpack_ragged"},
      {"[[nan1],[\"a\"]]", "r msgpack_ragged"}, {"[[nan],[\"a\"]]", "r json_ragged"},
      {"[[nan1],[1.5]]", "r typed_ragged float64"}, {"[{1:2}]", "r msgpack_ragged"},
      {"[{\"a\":1,b\"a\":2,1:3,1.0:4,True:5,None:6}]", "r msgpack_ragged"}, {"[None,Missing]", "r null"},
      {"[]", "r null"}, {"[\"\"]", "r utf8_ragged"}, {"[b\"\"]", "r bytes_ragged"},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) is(table[i][0], table[i][1]);
  is("[[0.5]*200,[nan1],[\"a\"]]", "r msgpack_ragged"); /* beyond the sample */
  is("[[0.5]*200,[nan],[\"a\"]]", "r json_ragged");
  is("[\"a\"*200,nan1]", "r msgpack_ragged");
  is("[{18446744073709551616:1,18446744073709551617:2}]", "r msgpack_ragged");
  tap_ok(result.nodes[0].accepted, "keys beyond 64 bits are accepted");
  tap_ok(!infer("[{[]:1}]") && !result.nodes[0].accepted &&
             result.nodes[0].codec == PACKBUF_CODEC_MSGPACK_RAGGED,
         "a key that nothing holds is not accepted");
  tap_ok(!infer("[None,Missing,Missing]") && result.nodes[0].nulls == 1 && result.nodes[0].missing == 2 &&
             result.nodes[0].rows == 3,
         "nulls and missing are counted");
  tap_ok(!infer("[tensor:int64(2),tensor:int64(2,2)]") && result.nodes[0].rank == 2 &&
             result.nodes[0].form == PACKBUF_FORM_TENSOR,
         "rank is the largest");
  tap_ok(!infer("[array:int64(2),[1]]") && result.nodes[0].form == PACKBUF_FORM_ARRAY,
         "the form is that of the first cell");
  tap_ok(!infer("[None,[1],array:int64(2)]") && result.nodes[0].form == PACKBUF_FORM_LIST, "the first cell present");
  tap_ok(!infer("[scalar:int8]") && result.nodes[0].form == PACKBUF_FORM_SCALAR && result.nodes[0].rank == 0,
         "scalars");
  tap_ok(!infer("[[media,b\"a\"]]") && result.nodes[0].form == PACKBUF_FORM_MEDIA,
         "the form of media lists is that of the first item");
}

static void test_errors(void) {
  packbuf_tensor tensor;
  packbuf_value cell, odd = packbuf_null();
  packbuf_entry entry;
  uint64_t shape[2] = {(uint64_t)1 << 40, (uint64_t)1 << 40};
  packbuf_device device;
  fails("[\"a\",\"b\\xFF\"]", PACKBUF_BAD_UTF8, 1, 1, "r");
  fails("[\"ok\",None,\"0123456789012345678901234567890123456789012345678901234567890123456789\\xED\\xA0\\x80\"]",
        PACKBUF_BAD_UTF8, 2, 70, "r");
  fails("[{\"k\":\"a\"},{\"k\":\"\\x80\"}]", PACKBUF_BAD_UTF8, 1, 0, "r.k");
  fails("[{\"a\":1},{\"bc\\xFF\":1}]", PACKBUF_BAD_UTF8, 1, 2, "r");
  fails("[[\"a\"],[1,{\"k\":[\"x\",\"yz\\xC0\"]}]]", PACKBUF_BAD_UTF8, 1, 2, "r");
  fails("[[\"a\"],[1,{\"k\\xFF\":1}]]", PACKBUF_BAD_UTF8, 1, 1, "r");
  fails("[b\"\\xFF\",\"\\xFF\"]", PACKBUF_BAD_UTF8, 1, 0, "r");
  fails("[[b\"\\xFF\",\"\\xFF\"]]", PACKBUF_BAD_UTF8, 0, 0, "r");
  fails("[None,media:\xFF]", PACKBUF_BAD_UTF8, 1, 0, "r");
  fails("[[b\"a\"],[media:\xFF]]", PACKBUF_BAD_UTF8, 1, 0, "r");
  fails("[opaque:ab\xFF]", PACKBUF_BAD_UTF8, 0, 2, "r");
  fails("[{\"a\":1},{\"a\":1,\"b\":2,\"a\":3}]", PACKBUF_INVALID_ARGUMENT, 1, PACKBUF_NOWHERE, "r");
  fails("[{\"p\":[5,{\"a\":1,\"b\":2,\"a\":3}]}]", PACKBUF_INVALID_ARGUMENT, 0, PACKBUF_NOWHERE, "r.p");
  fails("[1,{1:0,1:0}]", PACKBUF_INVALID_ARGUMENT, 1, PACKBUF_NOWHERE, "r");
  fails("[1,{18446744073709551616:0,None:0,18446744073709551616:0}]", PACKBUF_INVALID_ARGUMENT, 1, PACKBUF_NOWHERE,
        "r");
  fails("[[None],[None,Missing]]", PACKBUF_INVALID_ARGUMENT, 1, PACKBUF_NOWHERE, "r");
  fails("[1,{\"a\":Missing}]", PACKBUF_INVALID_ARGUMENT, 1, PACKBUF_NOWHERE, "r");
  is("[{1:0,1.0:0,True:0}]", "r msgpack_ragged");
  memset(&tensor, 0, sizeof tensor);
  cell = packbuf_tensor_value(&tensor);
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_UNSUPPORTED_DTYPE && error.row == 0, "an array of no dtype");
  tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 8);
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_INVALID_ARGUMENT, "an array without data");
  tensor.data = "";
  tensor.rank = 2;
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_INVALID_ARGUMENT, "an array without a shape");
  tensor.shape = shape;
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_INVALID_ARGUMENT, "a shape that overflows");
  tensor.rank = 9;
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_INVALID_ARGUMENT, "nine dimensions");
  shape[0] = 1;
  tensor.rank = 1;
  tensor.form = PACKBUF_FORM_SCALAR;
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_INVALID_ARGUMENT, "a scalar with a dimension");
  tensor.form = 7;
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_INVALID_ARGUMENT, "a form that does not exist");
  tensor.form = 0;
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_OK && result.nodes[0].form == PACKBUF_FORM_TENSOR,
         "form natural means tensor");
  memset(&device, 0, sizeof device);
  tensor.device = &device;
  tap_ok(run(packbuf_list(&cell, 1)) == PACKBUF_UNSUPPORTED_DEVICE, "a device without a copy hook");
  odd.kind = 99;
  tap_ok(run(packbuf_list(&odd, 1)) == PACKBUF_INVALID_ARGUMENT && error.row == 0, "a kind that does not exist");
  odd = packbuf_bigint("12");
  tap_ok(run(packbuf_list(&odd, 1)) == PACKBUF_INVALID_ARGUMENT, "a big integer that is not big");
  entry.key = odd;
  entry.value = packbuf_null();
  odd = packbuf_dict(&entry, 1);
  tap_ok(run(packbuf_list(&odd, 1)) == PACKBUF_INVALID_ARGUMENT, "nor as a key");
  tap_ok(packbuf_infer(NULL, 1, "r", PACKBUF_STRICT, &arena, &result, &error) == PACKBUF_INVALID_ARGUMENT, "no values");
}

/* ---- schema ---- */

static void test_schema(void) {
  packbuf_schema two[3];
  packbuf_schema schema;
  obeys("[{\"a\":1},{\"b\":2}]", PACKBUF_CODEC_JSON_RAGGED, NULL, PACKBUF_CODEC_JSON_RAGGED, "uint8", 0);
  obeys("[{\"a\":1},None]", PACKBUF_CODEC_MSGPACK_RAGGED, NULL, PACKBUF_CODEC_MSGPACK_RAGGED, "uint8", 0);
  obeys("[1,2]", PACKBUF_CODEC_NDARRAY, "int32", PACKBUF_CODEC_NDARRAY, "int32", 0);
  obeys("[1,2,True]", PACKBUF_CODEC_AUTO, "uint8", PACKBUF_CODEC_NDARRAY, "uint8", 1);
  obeys("[1,2.5,True]", PACKBUF_CODEC_AUTO, "float32", PACKBUF_CODEC_NDARRAY, "float32", 1);
  obeys("[0.5,nan,inf,-0.0]", PACKBUF_CODEC_AUTO, "float16", PACKBUF_CODEC_NDARRAY, "float16", 0);
  obeys("[[1,2],[]]", PACKBUF_CODEC_AUTO, "int8", PACKBUF_CODEC_TYPED_RAGGED, "int8", 0);
  obeys("[[],None]", PACKBUF_CODEC_AUTO, "int8", PACKBUF_CODEC_TYPED_RAGGED, "int8", 0);
  obeys("[[],[]]", PACKBUF_CODEC_TYPED_RAGGED, "int8", PACKBUF_CODEC_TYPED_RAGGED, "int8", 0);
  obeys("[[],[1]]", PACKBUF_CODEC_TYPED_RAGGED, NULL, PACKBUF_CODEC_TYPED_RAGGED, "int64", 0);
  obeys("[[[1,2],[3,4]]]", PACKBUF_CODEC_TYPED_RAGGED, NULL, PACKBUF_CODEC_TYPED_RAGGED, "int64", 0);
  obeys("[None,None]", PACKBUF_CODEC_TYPED_RAGGED, "int8", PACKBUF_CODEC_TYPED_RAGGED, "int8", 0);
  obeys("[None,None]", PACKBUF_CODEC_NDARRAY, NULL, PACKBUF_CODEC_NULL, "", 0);
  obeys("[None,None]", PACKBUF_CODEC_UTF8_RAGGED, NULL, PACKBUF_CODEC_UTF8_RAGGED, "uint8", 0);
  obeys("[None,None]", PACKBUF_CODEC_AUTO, "int8", PACKBUF_CODEC_NULL, "", 0);
  obeys("[[],[]]", PACKBUF_CODEC_MEDIA_LIST_RAGGED, NULL, PACKBUF_CODEC_MEDIA_LIST_RAGGED, "uint8", 0);
  obeys("[array:int32(2),array:int32(3)]", PACKBUF_CODEC_AUTO, "int32", PACKBUF_CODEC_TYPED_RAGGED, "int32", 0);
  obeys("[array:int32(2),[1]]", PACKBUF_CODEC_AUTO, "int32", PACKBUF_CODEC_TYPED_RAGGED, "int32", 1);
  obeys("[tensor:int32(),tensor:int32()]", PACKBUF_CODEC_NDARRAY, NULL, PACKBUF_CODEC_NDARRAY, "int32", 0);
  obeys("[\"a\"]", PACKBUF_CODEC_JSON_RAGGED, NULL, PACKBUF_CODEC_JSON_RAGGED, "uint8", 0);
  obeys("[\"a\"]", PACKBUF_CODEC_UTF8_RAGGED, "uint8", PACKBUF_CODEC_UTF8_RAGGED, "uint8", 0);
  obeys("[[\"x\"#1100000]]", PACKBUF_CODEC_JSON_RAGGED, NULL, PACKBUF_CODEC_JSON_RAGGED, "uint8", 0);
  disobeys("[1,2,300]", PACKBUF_CODEC_AUTO, "uint8", 2);
  disobeys("[1,-1]", PACKBUF_CODEC_AUTO, "uint8", 1);
  disobeys("[127,128]", PACKBUF_CODEC_NDARRAY, "int8", 1);
  disobeys("[-128,-129]", PACKBUF_CODEC_NDARRAY, "int8", 1);
  disobeys("[1,1.0]", PACKBUF_CODEC_AUTO, "int32", 1);
  disobeys("[True,1]", PACKBUF_CODEC_AUTO, "bool", 1);
  disobeys("[0.5,0.1]", PACKBUF_CODEC_AUTO, "float32", 1);
  disobeys("[16777216,16777217,0.5]", PACKBUF_CODEC_AUTO, "float32", 1);
  disobeys("[0.5,1]", PACKBUF_CODEC_AUTO, "bfloat16", 1);
  disobeys("[0.5,nan1]", PACKBUF_CODEC_AUTO, "float32", 1);
  disobeys("[1]", PACKBUF_CODEC_AUTO, "complex64", 0);
  disobeys("[None,\"a\"]", PACKBUF_CODEC_AUTO, "int8", 1);
  disobeys("[1,\"a\"]", PACKBUF_CODEC_NDARRAY, NULL, 1);
  disobeys("[[1],[1,[2]]]", PACKBUF_CODEC_TYPED_RAGGED, NULL, 1);
  disobeys("[[1],[300]]", PACKBUF_CODEC_AUTO, "int8", 1);
  disobeys("[-1,9223372036854775808]", PACKBUF_CODEC_NDARRAY, NULL, 1);
  disobeys("[array:int32(2),array:int64(2)]", PACKBUF_CODEC_AUTO, "int32", 1);
  disobeys("[tensor:int32(2)]", PACKBUF_CODEC_RAGGED_TENSOR, "int64", 0);
  disobeys("[tensor:int32(2)]", PACKBUF_CODEC_NDARRAY, NULL, 0);
  disobeys("[\"a\",None,b\"b\"]", PACKBUF_CODEC_UTF8_RAGGED, NULL, 2);
  disobeys("[b\"a\",\"b\"]", PACKBUF_CODEC_BYTES_RAGGED, NULL, 1);
  disobeys("[media,b\"b\"]", PACKBUF_CODEC_MEDIA_BYTES, NULL, 1);
  disobeys("[[media],[1]]", PACKBUF_CODEC_MEDIA_LIST_RAGGED, NULL, 1);
  disobeys("[{\"a\":1},{1:1}]", PACKBUF_CODEC_JSON_RAGGED, NULL, 1);
  disobeys("[{\"a\":1},[nan1]]", PACKBUF_CODEC_JSON_RAGGED, NULL, 1);
  disobeys("[opaque:a,opaque:b]", PACKBUF_CODEC_OPAQUE_RAGGED, NULL, 1);
  disobeys("[1,{[]:1}]", PACKBUF_CODEC_MSGPACK_RAGGED, NULL, 1);
  disobeys("[None,1]", PACKBUF_CODEC_NULL, NULL, 1);
  disobeys("[[],[]]", PACKBUF_CODEC_TYPED_RAGGED, NULL, PACKBUF_NOWHERE);
  disobeys("[\"a\"]", PACKBUF_CODEC_UTF8_RAGGED, "int8", PACKBUF_NOWHERE);
  /* paths, scopes, flags */
  two[0] = schema_of("f.a\\.b[1].x", PACKBUF_CODEC_JSON_RAGGED, NULL);
  two[1] = schema_of("f", PACKBUF_CODEC_MSGPACK_RAGGED, NULL);
  two[1].batch_value = 1;
  two[2] = schema_of("f.a\\.b[0", PACKBUF_CODEC_MSGPACK_RAGGED, NULL);
  tap_ok(!obey("[{\"a.b\":[{\"x\":1},{\"x\":1}]}]", two, 3) && top.kind == PACKBUF_NODE_DICT &&
             top.first_child->first_child->first_child->codec == PACKBUF_CODEC_NDARRAY &&
             top.first_child->last_child->first_child->codec == PACKBUF_CODEC_JSON_RAGGED,
         "an entry holds for its path and scope alone");
  tap_ok(obey("[{\"a.b\":[None,{\"x\":b\"1\"}]}]", two, 1) == PACKBUF_UNENCODABLE &&
             strcmp(error.path, "f.a\\.b[1].x") == 0 && error.row == 0,
         "the error names that path");
  schema = schema_of("f", PACKBUF_CODEC_AUTO, NULL);
  schema.flags = PACKBUF_REFUSE_NULL | PACKBUF_KEEP_PLAIN;
  tap_ok(obey("[1,2,None]", &schema, 1) == PACKBUF_NOT_NULLABLE && error.row == 2 && strcmp(error.path, "f") == 0,
         "a null that is refused");
  tap_ok(obey("[{\"a\":1},Missing]", &schema, 1) == PACKBUF_NOT_NULLABLE && error.row == 1,
         "a missing dict that is refused");
  schema.path = "f.a";
  tap_ok(obey("[{\"a\":1},None]", &schema, 1) == PACKBUF_NOT_NULLABLE && error.row == 1 &&
             strcmp(error.path, "f.a") == 0,
         "an absent parent counts");
  tap_ok(!obey("[tensor:int8(2),tensor:int8(2,2)]", NULL, 0) && top.mixed_ranks && top.rank == 2, "mixed ranks");
  tap_ok(!obey("[tensor:int8(2,1),tensor:int8(2,2)]", NULL, 0) && !top.mixed_ranks && top.rank == 2, "one rank");
  tap_ok(!obey("[{\"a\":1}]", &schema, 1) && top.first_child->flags == schema.flags && top.flags == 0,
         "flags are copied");
  schema = schema_of("f", PACKBUF_CODEC_AUTO, NULL);
  schema.logical_type = 1;
  schema.parameter = "ms";
  tap_ok(!obey("[1]", &schema, 1) && top.logical_type == 1 && top.parameter_size == 2 &&
             top.codec == PACKBUF_CODEC_NDARRAY,
         "a logical type is copied");
  tap_ok(obey("[{\"a\":1}]", &schema, 1) == PACKBUF_UNENCODABLE, "a dict has no logical type");
  tap_ok(obey("[opaque:a]", &schema, 1) == PACKBUF_UNENCODABLE, "an opaque column has none");
  schema.parameter = "\xFF";
  tap_ok(obey("[1]", &schema, 1) == PACKBUF_BAD_UTF8, "a parameter that is not UTF-8");
  schema = schema_of("f", (packbuf_codec)12, NULL);
  tap_ok(obey("[1]", &schema, 1) == PACKBUF_INVALID_ARGUMENT, "a codec that does not exist");
  schema = schema_of("f", PACKBUF_CODEC_NDARRAY, NULL);
  schema.dtype.bits = 7;
  tap_ok(obey("[1]", &schema, 1) == PACKBUF_UNSUPPORTED_DTYPE, "a dtype that does not exist");
}

/* ---- numbers ---- */

/* The float64 of small float formats, by the textbook. */
static double widened(uint64_t bits, unsigned exponent_bits, unsigned fraction_bits) {
  uint64_t fraction = bits & (((uint64_t)1 << fraction_bits) - 1),
           exponent = bits >> fraction_bits & (((uint64_t)1 << exponent_bits) - 1);
  int power = (int)exponent - (1 << (exponent_bits - 1)) + 1 - (int)fraction_bits;
  double value = (double)(exponent ? fraction | (uint64_t)1 << fraction_bits : fraction);
  if (!exponent) power++;
  for (; power > 0; power--) value *= 2;
  for (; power < 0; power++) value /= 2;
  return bits >> (exponent_bits + fraction_bits) ? -value : value;
}

static void test_narrow_format(const char *name, unsigned exponent_bits, unsigned fraction_bits) {
  packbuf_dtype dtype;
  uint64_t all = (uint64_t)1 << (1 + exponent_bits + fraction_bits), top_exponent = ((uint64_t)1 << exponent_bits) - 1,
           got;
  unsigned wrong = 0;
  int finite_top = exponent_bits == 4;
  packbuf_dtype_parse(name, &dtype);
  for (uint64_t bits = 0; bits < all; bits++) {
    uint64_t exponent = bits >> fraction_bits & top_exponent, fraction = bits & (((uint64_t)1 << fraction_bits) - 1);
    double value = widened(bits, exponent_bits, fraction_bits);
    if (exponent == top_exponent && (!finite_top || fraction == 7)) continue; /* infinity, NaN */
    if (!packbuf_i_narrow(value, dtype, &got) || got != bits) wrong++;
    if (packbuf_i_narrow(value * (1 + 1.0 / 4096 / 4096) + 1e-60, dtype, &got)) wrong++; /* between two */
  }
  if (!finite_top &&
      (!packbuf_i_narrow(values_nan(0x7FF0000000000000u), dtype, &got) || got != top_exponent << fraction_bits))
    wrong++;
  if (finite_top && packbuf_i_narrow(values_nan(0x7FF0000000000000u), dtype, &got)) wrong++;
  if (!packbuf_i_narrow(values_nan(0x7FF8000000000000u), dtype, &got)) wrong++;
  if (got != (finite_top ? 0x7Fu : top_exponent << fraction_bits | (uint64_t)1 << (fraction_bits - 1))) wrong++;
  if (packbuf_i_narrow(values_nan(0x7FF8000000000001u), dtype, &got) || packbuf_i_narrow(1e300, dtype, &got) ||
      packbuf_i_narrow(5e-324, dtype, &got))
    wrong++;
  if (packbuf_i_narrow(widened(all / 2 - 1, exponent_bits, fraction_bits), dtype, &got)) wrong++; /* where NaN is */
  tap_ok(wrong == 0, "every finite %s is exact, and nothing else", name);
}

static void test_narrow_float32(void) {
  unsigned wrong = 0;
  uint64_t state = 1, got;
  packbuf_dtype dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
  for (int i = 0; i < 200000; i++) {
    uint32_t bits, back;
    float narrow;
    double wide;
    state = state * 6364136223846793005u + 1442695040888963407u;
    bits = (uint32_t)(state >> 32);
    if (i % 3 == 0) bits &= 0x807FFFFFu; /* subnormal */
    if ((bits >> 23 & 255) == 255) continue;
    memcpy(&narrow, &bits, 4);
    wide = (double)narrow;
    if (!packbuf_i_narrow(wide, dtype, &got) || got != bits) wrong++;
    wide *= 1 + 1.0 / ((int64_t)1 << 40);
    narrow = (float)wide;
    memcpy(&back, &narrow, 4);
    if (packbuf_i_narrow(wide, dtype, &got) != ((double)narrow == wide)) wrong++;
  }
  tap_ok(wrong == 0, "float32 as the compiler converts it");
}

static void test_put(void) {
  packbuf_i_node leaf;
  packbuf_value cell = values_of("[[[1,2,3],[4,5,6]],[[7,8,9],[10,11,12]],[[13,14,15],[16,17,18]]]", &arena),
                flat = values_of("[1,True,-3,18446744073709551615]", &arena);
  uint64_t shape[8];
  int64_t wide[18];
  int8_t small[18];
  uint16_t few[24];
  float single[18];
  double d = 0;
  uint8_t b = 7;
  int wrong = 0;
  tap_ok(packbuf_i_list_shape(&cell, shape) == 3 && shape[0] == 3 && shape[1] == 2 && shape[2] == 3,
         "rank and shape of a nest");
  for (uint64_t first = 0; first < 18; first++)
    for (uint64_t count = 0; first + count <= 18; count++) {
      packbuf_i_put_numbers(&cell, packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), first, count, wide);
      packbuf_i_put_numbers(&cell, packbuf_dtype_of(PACKBUF_DTYPE_INT, 8), first, count, small);
      packbuf_i_put_numbers(&cell, packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32), first, count, single);
      for (uint64_t i = 0; i < count; i++)
        wrong += wide[i] != (int64_t)(first + i + 1) || small[i] != wide[i] || single[i] != (float)wide[i];
    }
  tap_ok(!wrong, "numbers in pieces, from nested lists");
  cell = values_of(
      "[[[[0,1],[2,3],[4,5]],[[6,7],[8,9],[10,11]]],[[[12,13],[14,15],[16,17]],[[18,19],[20,21],[22,23]]]]", &arena);
  for (uint64_t first = 0; first < 24; first++) {
    packbuf_i_put_numbers(&cell, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 16), first, 24 - first, few);
    for (uint64_t i = first; i < 24; i++) wrong += few[i - first] != i;
  }
  tap_ok(!wrong, "from four dimensions");
  packbuf_i_put_numbers(&flat, packbuf_dtype_of(PACKBUF_DTYPE_UINT, 64), 1, 3, wide);
  tap_ok(wide[0] == 1 && wide[1] == -3 && wide[2] == -1, "numbers of all kinds");
  flat = packbuf_bool(1);
  packbuf_i_put_numbers(&flat, packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64), 0, 1, &d);
  packbuf_i_put_numbers(&flat, packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 8), 0, 1, &b);
  tap_ok(d == 1.0 && b == 1, "a plain number");
  memset(&leaf, 0, sizeof leaf);
  leaf.dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 64);
  flat = packbuf_int(1);
  tap_ok(packbuf_i_cell_type(&leaf, &flat) == 2, "an int among floats");
  flat = packbuf_bool(1);
  tap_ok(packbuf_i_cell_type(&leaf, &flat) == 1, "a bool among floats");
  flat = packbuf_float(1);
  tap_ok(packbuf_i_cell_type(&leaf, &flat) == 0, "a float among floats");
  flat = packbuf_null();
  tap_ok(packbuf_i_cell_type(&leaf, &flat) == 0, "an absent cell");
  leaf.form = PACKBUF_FORM_ARRAY;
  tap_ok(packbuf_i_cell_type(&leaf, &cell) == 0x12, "a list of ints among arrays of floats");
  flat = packbuf_list(NULL, 0);
  tap_ok(packbuf_i_cell_type(&leaf, &flat) == 0x10, "an empty list has no number type");
}

/* ---- compat ---- */

static packbuf_status compat_check(const char *notation) {
  packbuf_i_expand expand;
  packbuf_i_node node;
  packbuf_value column = values_of(notation, &arena);
  memset(&expand, 0, sizeof expand);
  memset(&node, 0, sizeof node);
  memset(&error, 0, sizeof error);
  expand.arena = &arena;
  expand.error = &error;
  node.name = "f";
  node.name_size = 1;
  node.kind = PACKBUF_LEAF;
  node.rows = node.cells.count = column.as.list.count;
  node.cells.values = column.as.list.items;
  return packbuf_i_check_compat(&expand, &node);
}

static void test_compat(void) {
  static const char *const lossy[] = {"[True,2]",
                                      "[1,2.5]",
                                      "[[1,2],[]]",
                                      "[[1],[2.5]]",
                                      "[scalar:int8,scalar:uint8]",
                                      "[scalar:float32,2.1]",
                                      "[[scalar:float32]]",
                                      "[{1:2}]",
                                      "[9223372036854775808,-1]",
                                      "[array:int64(2),[1,2]]",
                                      "[[True,2]]",
                                      "[[tensor:int64(1)]]"};
  static const char *const kept[] = {
      "[1,2]",       "[0.5]",           "[[1],[2]]",        "[\"a\"]",
      "[{\"a\":1}]", "[object]",        "[[True],[False]]", "[tensor:int8(1),tensor:int8(1,1)]",
      "[None]",      "[array:int8(2)]", "[[\"a\",1]]",      "[[b\"a\"]]"};
  for (size_t i = 0; i < sizeof lossy / sizeof *lossy; i++) {
    packbuf_status status = compat_check(lossy[i]);
    tap_ok(status == PACKBUF_LOSSY && strcmp(error.path, "f") == 0, "compat would change %s", lossy[i]);
  }
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
    tap_ok(compat_check(strcmp(kept[i], "[object]") ? kept[i] : "[opaque:pickle]") == PACKBUF_OK,
           "compat would keep %s", kept[i]);
  tap_ok(compat_check("[{\"a\":{\"b\":[1]}},{\"a\":{\"b\":[]}}]") == PACKBUF_LOSSY && strcmp(error.path, "f.a.b") == 0,
         "the path of what would change");
}

/* The sample of compat mode, as Python's json writes keys that are no strings. */
static void test_compat_sample(void) {
  packbuf_value column = values_of("[{1:\"x\"#1048568}]", &arena), over = values_of("[{1:\"x\"#1048569}]", &arena);
  packbuf_status status = packbuf_infer(column.as.list.items, 1, "r", PACKBUF_COMPAT, &arena, &result, &error);
  tap_ok(!status && result.nodes[0].accepted && result.nodes[0].codec == PACKBUF_CODEC_JSON_RAGGED,
         "1 MiB as json.dumps writes it");
  status = packbuf_infer(over.as.list.items, 1, "r", PACKBUF_COMPAT, &arena, &result, &error);
  tap_ok(!status && !result.nodes[0].accepted, "one byte more");
}

/* Columns that would expand, as leaves. */
static void test_leaf_alone(void) {
  packbuf_i_expand expand;
  packbuf_value column = values_of("[[],[]]", &arena);
  memset(&expand, 0, sizeof expand);
  memset(&top, 0, sizeof top);
  expand.arena = &arena;
  top.rows = top.cells.count = 2;
  top.cells.values = column.as.list.items;
  tap_ok(!packbuf_i_infer_leaf(&expand, &top, NULL) && top.codec == PACKBUF_CODEC_JSON_RAGGED,
         "empty lists alone are neither numbers nor media");
}

static void test_names(void) {
  packbuf_codec codec = PACKBUF_CODEC_AUTO;
  int wrong = 0;
  for (int i = 1; i <= 11; i++)
    wrong += !packbuf_codec_name((packbuf_codec)i) ||
             !packbuf_codec_parse(packbuf_codec_name((packbuf_codec)i), &codec) || (int)codec != i;
  tap_ok(!wrong, "codec names there and back");
  tap_ok(!packbuf_codec_name(PACKBUF_CODEC_AUTO) && !packbuf_codec_name((packbuf_codec)12) &&
             !packbuf_codec_parse("pickle", &codec) && !packbuf_codec_parse("", &codec),
         "unknown codecs");
}

/* ---- memory and size ---- */

/* One run with an allocator that fails from its i-th call on (or in that call alone). 1: nothing failed, -1: a wrong
 * status. */
static int starved(const packbuf_value *column, unsigned long i, int once) {
  packbuf_allocator allocator;
  packbuf_arena small;
  packbuf_status status;
  failing f = failing_at(i, once);
  allocator = failing_allocator(&f);
  packbuf_arena_init(&small, &allocator);
  status = packbuf_infer(column->as.list.items, column->as.list.count, "r", PACKBUF_STRICT, &small, &result, &error);
  packbuf_arena_free(&small);
  if (status == PACKBUF_OK && f.calls <= i) return 1;
  return status == PACKBUF_OUT_OF_MEMORY && error.code == status ? 0 : -1;
}

static void test_memory(void) {
  const char *notation = "[{\"a\":{\"b\":[1,{\"c\":2}],\"d\":[{\"e\":b\"x\"},None]},\"j\":[1,\"x\"]}*300,"
                         "{\"j\":[keys(70),keys(20000),2]}]";
  packbuf_value column = values_of(notation, &arena);
  for (int once = 0; once < 2; once++) {
    int outcome = 0;
    unsigned long i = 0;
    while (i < 1000 && (outcome = starved(&column, i, once)) == 0) i++;
    tap_ok(outcome == 1 && i > 5, "%s fails, for every call: OUT_OF_MEMORY (%lu calls)",
           once ? "one allocation" : "every allocation from one on", i);
  }
  column = values_of("[{\"a\":{\"b\":[1,{\"c\":2}],\"d\":[{\"e\":b\"x\"},None]},\"j\":[1,\"x\"]}]", &arena);
  {
    packbuf_arena small;
    packbuf_status status = PACKBUF_OUT_OF_MEMORY;
    uint64_t limit = 0;
    int wrong = 0;
    for (; limit < 100000 && status == PACKBUF_OUT_OF_MEMORY; limit += 8) {
      packbuf_arena_init(&small, NULL);
      small.limit = limit;
      status = packbuf_infer(column.as.list.items, column.as.list.count, "r", PACKBUF_STRICT, &small, &result, &error);
      wrong += status != PACKBUF_OK && status != PACKBUF_OUT_OF_MEMORY;
      packbuf_arena_free(&small);
    }
    tap_ok(!wrong && status == PACKBUF_OK && limit > 1000, "every limit of the arena below %u bytes: OUT_OF_MEMORY",
           (unsigned)limit);
  }
}

static double seconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void timed(const char *what, packbuf_value column, const char *path, const char *wanted) {
  double start = seconds();
  packbuf_status status = run(column);
  double spent = seconds() - start;
  const char *got = status ? packbuf_status_name(status) : shown(find(path));
  if (!tap_ok(strcmp(got, wanted) == 0, "%u rows of %s: %s", (unsigned)column.as.list.count, what, wanted))
    tap_note("got %s", got);
  tap_note("%s: %.1f million rows/s", what, (double)column.as.list.count / spent / 1e6);
}

static void test_size(void) {
  size_t rows = getenv("INFER_ROWS") ? (size_t)atol(getenv("INFER_ROWS")) : 100000;
  packbuf_value *values = (packbuf_value *)malloc(rows * sizeof *values);
  packbuf_entry *entries = (packbuf_entry *)malloc(rows * 8 * sizeof *entries);
  packbuf_value *items = (packbuf_value *)malloc(rows * 16 * sizeof *items);
  packbuf_value column = packbuf_list(values, rows), large;
  char *text = (char *)malloc(rows * 100);
  static const char names[64][8] = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"};
  if (!values || !entries || !items || !text) exit(2);
  memset(text, 'x', rows * 100);
  for (size_t i = 0; i < rows; i++) values[i] = packbuf_int((int64_t)i);
  timed("ints", column, "r", "r ndarray int64");
  for (size_t i = 0; i < rows; i++) values[i] = packbuf_float((double)i / 2);
  timed("floats", column, "r", "r ndarray float64");
  for (size_t i = 0; i < rows; i++) values[i] = packbuf_string_n(text + i * 100, 40);
  timed("strings of 40 bytes", column, "r", "r utf8_ragged");
  for (size_t i = 0; i < rows; i++) values[i] = packbuf_string_n(text + i * 100, 12);
  timed("strings of 12 bytes", column, "r", "r utf8_ragged");
  for (size_t i = 0; i < rows; i++) values[i] = packbuf_string_n(text, (i & 7) * 200);
  timed("strings of 700 bytes", column, "r", "r utf8_ragged");
  for (size_t i = 0; i < rows; i++) {
    for (size_t k = 0; k < 16; k++) items[i * 16 + k] = packbuf_int((int64_t)k);
    values[i] = packbuf_list(items + i * 16, 16);
  }
  timed("lists of 16 ints", column, "r", "r typed_ragged int64");
  for (size_t i = 0; i < rows; i++) {
    for (size_t k = 0; k < 8; k++) {
      entries[i * 8 + k].key = packbuf_string(names[k]);
      entries[i * 8 + k].value = packbuf_int((int64_t)k);
    }
    values[i] = packbuf_dict(entries + i * 8, 8);
  }
  timed("dicts of 8 keys", column, "r.theta", "r.theta ndarray int64");
  for (size_t i = 0; i < rows; i++)
    for (size_t k = 0; k < 8; k++) { /* keys at addresses of their own, in another order in each row */
      char *own = text + i * 100 + k * 10;
      size_t which = (k * (i % 4 * 2 + 1) + i) % 8;
      memcpy(own, names[which], 8);
      entries[i * 8 + k].key = packbuf_string(own);
    }
  timed("dicts of 8 shuffled keys", column, "r.theta", "r.theta ndarray int64");
  for (size_t i = 0; i < rows; i++)
    for (size_t k = 0; k < 8; k++) entries[i * 8 + k].key = k ? packbuf_string(names[k]) : packbuf_int((int64_t)i);
  timed("dicts that cannot expand", column, "r", "r msgpack_ragged");
  for (size_t i = 0; i < rows * 8; i++) entries[i].key = packbuf_int((int64_t)i);
  values[0] = packbuf_dict(entries, rows * 8);
  large = packbuf_list(values, 1);
  timed("one dict of very many keys", large, "r", "r msgpack_ragged");
  entries[rows * 8 - 1].key = packbuf_int(3);
  tap_ok(run(large) == PACKBUF_INVALID_ARGUMENT && error.row == 0, "equal keys among very many");
  free(values);
  free(entries);
  free(items);
  free(text);
}

int main(void) {
  packbuf_arena_init(&arena, NULL);
  test_order();
  test_limits();
  test_promotion();
  test_errors();
  test_schema();
  test_narrow_format("float16", 5, 10);
  test_narrow_format("bfloat16", 8, 7);
  test_narrow_format("float8_e4m3fn", 4, 3);
  test_narrow_format("float8_e5m2", 5, 2);
  test_narrow_float32();
  test_put();
  test_compat();
  test_compat_sample();
  test_leaf_alone();
  test_names();
  test_memory();
  test_size();
  packbuf_arena_free(&arena);
  return tap_plan_done();
}
