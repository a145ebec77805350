/* Inference against Mooncake's merged structured codec: its 25 test cases, and the 170 measured columns of the edge
 * matrix. For each column: the leaf decision that codec makes (compat mode, without expansion), what it expands, and
 * what strict mode makes of it: equal decisions or, where the original loses values, better ones. Columns that only
 * Python can hold are listed with the reason. */
#include "internals.h"
#include "tap.h"
#include "values.h"

typedef struct replay_row {
  int number;
  const char *input;     /* NULL: C values cannot express it */
  const char *leaf;      /* compat, without expansion; or the reason */
  const char *expansion; /* compat: the nodes, up to three */
  const char *strict; /* every node: path{} dict, path[] list, path codec dtype; * after the dtype: a types buffer */
} replay_row;

static const replay_row matrix[] = {
#include "infer_replay_rows.h"
};

typedef struct replay_text {
  char text[8192];
  size_t size;
} replay_text;

static void replay_add(replay_text *out, const char *a, const char *b, const char *c) {
  const char *parts[3];
  parts[0] = a, parts[1] = b, parts[2] = c;
  for (int i = 0; i < 3; i++) {
    size_t size = strlen(parts[i]);
    if (size >= sizeof out->text - out->size) size = sizeof out->text - out->size - 1;
    memcpy(out->text + out->size, parts[i], size);
    out->size += size;
  }
  out->text[out->size] = 0;
}

static void replay_leaf(replay_text *out, const packbuf_inferred *leaf, const char *before) {
  const char *dtype = packbuf_dtype_name(leaf->dtype);
  if (!leaf->accepted)
    replay_add(out, before, leaf->codec == PACKBUF_CODEC_OPAQUE_RAGGED ? "rejected" : "unholdable", "");
  else replay_add(out, before, packbuf_codec_name(leaf->codec), "");
  if (leaf->accepted && dtype) replay_add(out, " ", dtype, leaf->typed ? "*" : "");
}

/* All nodes of an inference; at most eight are shown. */
static void replay_nodes(replay_text *out, packbuf_value column, packbuf_mode mode, packbuf_arena *arena) {
  packbuf_inference result;
  packbuf_error error;
  packbuf_status status = packbuf_infer(column.as.list.items, column.as.list.count, "r", mode, arena, &result, &error);
  out->size = 0;
  out->text[0] = 0;
  if (status) replay_add(out, packbuf_status_name(status), " at ", error.path);
  for (uint32_t i = 0; !status && i < result.count; i++) {
    const packbuf_inferred *node = &result.nodes[i];
    if (i == 8) {
      replay_add(out, " ...", "", "");
      break;
    }
    replay_add(out, i ? ", " : "", node->path, "");
    if (node->kind == PACKBUF_LEAF) replay_leaf(out, node, " ");
    else replay_add(out, node->kind == PACKBUF_NODE_DICT ? "{}" : "[]", "", "");
  }
}

/* The leaf decision of compat mode for the column as it is. */
static void replay_compat(replay_text *out, packbuf_value column, packbuf_arena *arena) {
  packbuf_i_expand expand;
  packbuf_i_node node;
  packbuf_inferred shown;
  memset(&expand, 0, sizeof expand);
  memset(&node, 0, sizeof node);
  expand.arena = arena;
  expand.mode = PACKBUF_COMPAT;
  node.name = "r";
  node.name_size = 1;
  node.kind = PACKBUF_LEAF;
  node.rows = node.cells.count = column.as.list.count;
  node.cells.values = column.as.list.items;
  out->size = 0;
  out->text[0] = 0;
  if (packbuf_i_infer_compat(&expand, &node) || !packbuf_i_show_node(&node, arena, &shown))
    replay_add(out, "error", "", "");
  else replay_leaf(out, &shown, "");
}

/* The nodes that compat mode opens, as the matrix shows them. */
static void replay_expansion(replay_text *out, packbuf_value column, packbuf_arena *arena) {
  packbuf_inference result;
  unsigned shown = 0;
  packbuf_status status =
      packbuf_infer(column.as.list.items, column.as.list.count, "r", PACKBUF_COMPAT, arena, &result, NULL);
  out->size = 0;
  out->text[0] = 0;
  if (status) replay_add(out, status == PACKBUF_DEPTH ? "ValueError(depth)" : packbuf_status_name(status), "", "");
  for (uint32_t i = 0; !status && i < result.count; i++) {
    const packbuf_inferred *node = &result.nodes[i];
    if (node->kind == PACKBUF_LEAF) continue;
    if (shown == 3) {
      replay_add(out, " ...", "", "");
      break;
    }
    replay_add(out, shown++ ? ", " : "", node->kind == PACKBUF_NODE_DICT ? "dict " : "list ", node->path);
  }
  if (!status && !shown) replay_add(out, "leaf", "", "");
}

static int replay_same(const char *got, const char *wanted, const replay_row *row, const char *what) {
  if (strcmp(got, wanted) == 0) return 1;
  tap_note("%d %.60s %s: got %s, wanted %s", row->number, row->input, what, got, wanted);
  return 0;
}

static void replay_matrix(void) {
  static replay_text text;
  for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) {
    const replay_row *row = &matrix[i];
    packbuf_arena arena;
    packbuf_value column;
    int passed = 1;
    if (!row->input) {
      tap_note("%d not a C value: %s", row->number, row->leaf);
      continue;
    }
    packbuf_arena_init(&arena, NULL);
    column = values_of(row->input, &arena);
    replay_compat(&text, column, &arena);
    passed &= replay_same(text.text, row->leaf, row, "compat leaf");
    replay_expansion(&text, column, &arena);
    passed &= replay_same(text.text, row->expansion, row, "compat expansion");
    replay_nodes(&text, column, PACKBUF_STRICT, &arena);
    passed &= replay_same(text.text, row->strict, row, "strict");
    tap_ok(passed, "matrix row %d: %.70s", row->number, row->input);
    packbuf_arena_free(&arena);
  }
}

/* ---- the original's own 25 cases ---- */

/* Rows 24 and 25 exist only in later versions, which accept what the merged one rejects; they are replayed with
 * expansion. */
typedef struct replay_case {
  const char *name, *input, *compat, *strict; /* compat: the leaf decision, or (structure cases) as `strict` */
} replay_case;

static const replay_case leaf_cases[] = {
    {"1 tensor", "[tensor:int64(2),tensor:int64(1)]", "ragged_tensor int64", "r ragged_tensor int64"},
    {"2 tensor mixed dtype", "[tensor:float32(1),tensor:int64(1)]", "rejected", "r msgpack_ragged"},
    {"3 tensor mixed ndim", "[tensor:int64(1),tensor:int64(1,2)]", "rejected", "r ragged_tensor int64"},
    {"4 numeric sequence", "[[1,2,3],[4,5]]", "typed_ragged int64", "r typed_ragged int64"},
    {"5 bytes", "[b\"hello\",b\"world\"]", "bytes_ragged", "r bytes_ragged"},
    {"6 text", "[\"hello\",\"world\"]", "utf8_ragged", "r utf8_ragged"},
    {"7 json", "[{\"a\":1},{\"b\":2}]", "json_ragged", "r{}, r.a ndarray int64, r.b ndarray int64"},
    {"8 json rejects late non-serializable", "[{\"ok\":1}*200,opaque:pickle]", "rejected", "r msgpack_ragged"},
    {"9 scalar", "[1,2.0,3]", "ndarray float64", "r ndarray float64*"},
    {"10 fallback", "[opaque:pickle,opaque:pickle]", "rejected", "r opaque_ragged"},
    {"11 with nulls", "[\"hello\",None,\"world\"]", "utf8_ragged", "r utf8_ragged"},
    {"12 empty values", "[]", "rejected", "r null"},
    {"13 all none", "[None*3]", "rejected", "r null"},
};

static const replay_case structure_cases[] = {
    {"14 flat", "[\"a\",\"b\",\"c\"]", "r utf8_ragged", "r utf8_ragged"},
    {"15 dict", "[{\"x\":1,\"y\":\"a\"},{\"x\":2,\"y\":\"b\"}]", "r{}, r.x ndarray int64, r.y utf8_ragged",
     "r{}, r.x ndarray int64, r.y utf8_ragged"},
    {"16 dict with none rows", "[{\"x\":1},None,{\"x\":3}]", "r{}, r.x ndarray int64", "r{}, r.x ndarray int64"},
    {"17 nested", "[{\"a\":{\"b\":1}}*2]", "r{}, r.a{}, r.a.b ndarray int64", "r{}, r.a{}, r.a.b ndarray int64"},
    {"18 list", "[[{\"k\":1}],[{\"k\":2}]]", "r[], r[0]{}, r[0].k ndarray int64", "r[], r[0]{}, r[0].k ndarray int64"},
    {"19 list with none items", "[[{\"k\":1},None],[{\"k\":2},None]]",
     "r[], r[0]{}, r[0].k ndarray int64, r[1] rejected", "r[], r[0]{}, r[0].k ndarray int64, r[1] null"},
    {"20 missing key and null value", "[{\"x\":None},{\"y\":2},None]", "r{}, r.x rejected, r.y ndarray int64",
     "r{}, r.x null, r.y ndarray int64"},
    {"21 escapes", "[{\"simple\":1,\"a.b\":1,\"a[0]\":1,\"a\\\\b\":1}]",
     "r{}, r.simple ndarray int64, r.a\\.b ndarray int64, r.a\\[0] ndarray int64, r.a\\\\b ndarray int64",
     "r{}, r.simple ndarray int64, r.a\\.b ndarray int64, r.a\\[0] ndarray int64, r.a\\\\b ndarray int64"},
    {"22 key with a dot", "[{\"a.b\":1}*2]", "r{}, r.a\\.b ndarray int64", "r{}, r.a\\.b ndarray int64"},
    {"23 depth limit", "[deep(40)*2]", "DEPTH at r.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a",
     "DEPTH at r.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"},
    {"24 dict of tensors",
     "[{\"tokens\":tensor:int64(2),\"score\":1.0},{\"tokens\":tensor:int64(1),\"score\":2.0},{\"tokens\":tensor:int64(3),\"score\":None}]",
     "r{}, r.tokens ragged_tensor int64, r.score ndarray float64",
     "r{}, r.tokens ragged_tensor int64, r.score ndarray float64"},
    {"25 dict of tensors, missing keys",
     "[{\"tokens\":tensor:int64(2),\"label\":None},None,{\"label\":3},{\"tokens\":None,\"label\":4}]",
     "r{}, r.tokens ragged_tensor int64, r.label ndarray int64",
     "r{}, r.tokens ragged_tensor int64, r.label ndarray int64"},
};

static void replay_cases(void) {
  static replay_text text;
  for (size_t i = 0; i < sizeof leaf_cases / sizeof *leaf_cases + sizeof structure_cases / sizeof *structure_cases;
       i++) {
    int leaf = i < sizeof leaf_cases / sizeof *leaf_cases;
    const replay_case *one = leaf ? &leaf_cases[i] : &structure_cases[i - sizeof leaf_cases / sizeof *leaf_cases];
    packbuf_arena arena;
    packbuf_value column;
    packbuf_arena_init(&arena, NULL);
    column = values_of(one->input, &arena);
    if (leaf) replay_compat(&text, column, &arena);
    else replay_nodes(&text, column, PACKBUF_COMPAT, &arena);
    tap_ok(strcmp(text.text, one->compat) == 0, "case %s, compat: %s", one->name, text.text);
    replay_nodes(&text, column, PACKBUF_STRICT, &arena);
    tap_ok(strcmp(text.text, one->strict) == 0, "case %s, strict: %s", one->name, text.text);
    packbuf_arena_free(&arena);
  }
}

/* What cases 18 and 20 say of rows: masks, lengths, and which cells of a child are null or missing. */
static void replay_rows(void) {
  packbuf_arena arena;
  packbuf_inference result;
  packbuf_value column;
  packbuf_status status;
  packbuf_arena_init(&arena, NULL);
  column = values_of("[{\"x\":None},{\"y\":2},None]", &arena);
  status = packbuf_infer(column.as.list.items, column.as.list.count, "r", PACKBUF_STRICT, &arena, &result, NULL);
  tap_ok(!status && result.nodes[0].present[0] == 3 && result.nodes[0].nulls == 1, "case 20: rows 0 and 1 are dicts");
  tap_ok(!status && result.nodes[1].nulls == 2 && result.nodes[1].missing == 1, "case 20: x is null, missing, null");
  tap_ok(!status && result.nodes[2].nulls == 1 && result.nodes[2].missing == 1, "case 20: y is missing, 2, null");
  column = values_of("[[{\"k\":1}],[{\"k\":2}]]", &arena);
  status = packbuf_infer(column.as.list.items, column.as.list.count, "r", PACKBUF_STRICT, &arena, &result, NULL);
  tap_ok(!status && result.nodes[0].lengths[0] == 1 && result.nodes[0].lengths[1] == 1, "case 18: lengths 1 and 1");
  packbuf_arena_free(&arena);
}

int main(void) {
  replay_cases();
  replay_rows();
  replay_matrix();
  return tap_plan_done();
}
