/* core/schema.c: the schema text of a packed buffer (section 24), line by line into memory, into a hash, or against a
 * text that is expected; nothing is allocated, since the name index has the siblings in the order that the text wants.
 * May use: base, access, tables, find, sha256, value and infer (names of dtypes and codecs). Must not know: buffers,
 * cells. */

/* ---- the columns in their order ---- */

/* A node whose children are walked: a range of the name index, or for a list of the node table. */
typedef struct packbuf_i_schema_frame {
  uint32_t node; /* PACKBUF_NO_NODE at the top */
  uint32_t next, end;
  uint32_t item; /* which child is next */
  int list;
} packbuf_i_schema_frame;

/* One step of the path to a node: its index, and its place when it is an item of a list. */
typedef struct packbuf_i_schema_step {
  uint32_t node, item;
  int is_item;
} packbuf_i_schema_step;

typedef struct packbuf_i_schema_walk {
  const packbuf_view *view;
  uint32_t left; /* nodes that may still come: a tree that is rewritten meanwhile cannot be walked for ever */
  unsigned depth;
  unsigned scope;  /* that is being walked */
  unsigned scopes; /* that follow */
  packbuf_i_schema_frame frames[PACKBUF_I_DEPTH_CAP + 1];
  packbuf_i_schema_step path[PACKBUF_I_DEPTH_CAP + 1]; /* path[depth - 1] is the node in turn, as it was found */
  unsigned steps;
} packbuf_i_schema_walk;

/* The first entry of the name index whose group is not below `group`. */
static uint32_t packbuf_i_group_start(const packbuf_view *view, uint64_t group) {
  uint32_t low = 0, high = view->name_count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    uint32_t node = PACKBUF_NO_NODE;
    packbuf_i_name name;
    (void)packbuf_i_fetch_name(view, middle, &node);
    if (packbuf_i_name_of(view, node, &name) && name.group < group) low = middle + 1;
    else high = middle;
  }
  return low;
}

static void packbuf_i_schema_enter(packbuf_i_schema_walk *w, uint32_t node, const packbuf_i_node_record *record) {
  packbuf_i_schema_frame *frame = &w->frames[w->depth];
  const uint64_t group = (uint64_t)node << 8 | w->scope;
  if (w->depth > PACKBUF_I_DEPTH_CAP) return;
  frame->node = node;
  frame->item = 0;
  frame->list = record && record->kind == PACKBUF_NODE_LIST;
  if (frame->list) {
    frame->next = node + 1;
    frame->end = record->descendants < w->view->node_count - node ? node + 1 + record->descendants : 0;
  } else {
    frame->next = packbuf_i_group_start(w->view, group);
    frame->end = packbuf_i_group_start(w->view, group + 1);
  }
  w->depth++;
}

/* All columns of both scopes. */
static void packbuf_i_schema_start(packbuf_i_schema_walk *w, const packbuf_view *view) {
  w->view = view;
  w->left = view->node_count;
  w->depth = w->steps = 0;
  w->scope = 0;
  w->scopes = 1;
  packbuf_i_schema_enter(w, PACKBUF_NO_NODE, NULL);
}

/* What lies below one node. */
static void packbuf_i_schema_below(packbuf_i_schema_walk *w, const packbuf_view *view, uint32_t node) {
  packbuf_i_node_record record;
  w->view = view;
  w->left = view->node_count;
  w->depth = w->steps = w->scopes = 0;
  if (!packbuf_i_fetch_node(view, node, &record) || record.descendants == 0) return;
  w->scope = record.scope;
  packbuf_i_schema_enter(w, node, &record);
}

/* The next node in pre-order, siblings by name (items by place); 0 at the end. */
static int packbuf_i_schema_next(packbuf_i_schema_walk *w, uint32_t *node) {
  while (w->depth || w->scopes) {
    packbuf_i_schema_frame *frame = &w->frames[w->depth ? w->depth - 1 : 0];
    packbuf_i_schema_step *step = &w->path[w->depth ? w->depth - 1 : 0];
    packbuf_i_node_record record;
    if (w->depth == 0) { /* the other scope */
      w->scopes--;
      w->scope++;
      packbuf_i_schema_enter(w, PACKBUF_NO_NODE, NULL);
      continue;
    }
    if (frame->next >= frame->end) {
      w->depth--;
      continue;
    }
    if (w->left == 0) return 0;
    w->left--;
    *node = frame->next;
    if (!frame->list && !packbuf_i_fetch_name(w->view, frame->next, node)) return 0;
    if (!packbuf_i_fetch_node(w->view, *node, &record)) return 0;
    if (frame->list && record.descendants >= frame->end - frame->next) frame->next = frame->end;
    else frame->next += frame->list ? 1 + record.descendants : 1;
    step->node = *node;
    step->is_item = frame->list;
    step->item = frame->item++;
    w->steps = w->depth;
    if (record.descendants) packbuf_i_schema_enter(w, *node, &record);
    return 1;
  }
  return 0;
}

/* The way to one node, from its parents. 0 when it is too long. */
static int packbuf_i_schema_path_of(const packbuf_view *view, uint32_t node, packbuf_i_schema_walk *w) {
  unsigned count = 0, i;
  packbuf_i_node_record record, up;
  w->view = view;
  for (uint32_t at = node; packbuf_i_fetch_node(view, at, &record); at = record.parent) {
    packbuf_i_schema_step *step = &w->path[count];
    if (count++ == PACKBUF_I_DEPTH_CAP) return 0;
    step->node = at;
    step->item = 0;
    step->is_item = packbuf_i_fetch_node(view, record.parent, &up) && up.kind == PACKBUF_NODE_LIST;
    if (step->is_item) step->item = (uint32_t)packbuf_i_count_siblings(view, (uint64_t)record.parent + 1, at);
    if (record.parent >= at) break;
  }
  for (i = 0; i < count / 2; i++) {
    const packbuf_i_schema_step step = w->path[i];
    w->path[i] = w->path[count - 1 - i];
    w->path[count - 1 - i] = step;
  }
  w->steps = count;
  return count != 0;
}

/* ---- the text ---- */

/* Where the text goes: a sink, and when they are set a hash, or a line that it should be equal to. */
typedef struct packbuf_i_schema_out {
  packbuf_i_sink sink;
  packbuf_i_sha256 *hash;
  const char *expected;
  size_t left;
  int differs;
} packbuf_i_schema_out;

static void packbuf_i_schema_out_start(packbuf_i_schema_out *out, char *text, size_t capacity) {
  memset(out, 0, sizeof *out);
  out->sink.at = (uint8_t *)text;
  out->sink.capacity = text ? capacity : 0;
}

static void packbuf_i_schema_put(packbuf_i_schema_out *out, const char *text, size_t size) {
  if (size == 0) return;
  packbuf_i_push(&out->sink, text, size);
  if (out->hash) packbuf_i_sha256_add(out->hash, text, size);
  if (!out->expected || out->differs) return;
  if (size > out->left || memcmp(out->expected, text, size) != 0) {
    out->differs = 1;
    return;
  }
  out->expected += size;
  out->left -= size;
}

static void packbuf_i_schema_word(packbuf_i_schema_out *out, const char *word) {
  packbuf_i_schema_put(out, word, strlen(word));
}

static void packbuf_i_schema_number(packbuf_i_schema_out *out, uint64_t number) {
  char digits[24];
  size_t at = sizeof digits;
  do digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  packbuf_i_schema_put(out, digits + at, sizeof digits - at);
}

/* A character that a JSON string escapes, as section 11 says. */
static void packbuf_i_schema_escape(packbuf_i_schema_out *out, char c) {
  static const char hex[] = "0123456789abcdef", from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
  const char *known = c ? strchr(from, c) : NULL;
  char escape[6] = {'\\', 'u', '0', '0', 0, 0};
  if (known) {
    escape[1] = to[known - from];
    packbuf_i_schema_put(out, escape, 2);
    return;
  }
  escape[4] = hex[(unsigned char)c >> 4];
  escape[5] = hex[c & 15];
  packbuf_i_schema_put(out, escape, 6);
}

/* Text inside a JSON string; as a step of a path, also with `\`, `.` and `[` escaped. */
static void packbuf_i_schema_string(packbuf_i_schema_out *out, packbuf_text text, int step) {
  size_t begin = 0, i = 0;
  for (; i < text.size; i++) {
    const char c = text.data[i];
    const int path = step && (c == '\\' || c == '.' || c == '['),
              json = c == '"' || c == '\\' || (unsigned char)c < 0x20;
    if (!path && !json) continue;
    packbuf_i_schema_put(out, text.data + begin, i - begin);
    begin = i + (size_t)json;
    if (path) packbuf_i_schema_put(out, "\\\\", 2);
    if (json) packbuf_i_schema_escape(out, c);
  }
  packbuf_i_schema_put(out, text.data + begin, i - begin);
}

static void packbuf_i_schema_path(packbuf_i_schema_out *out, const packbuf_i_schema_walk *w) {
  for (unsigned i = 0; i < w->steps; i++) {
    packbuf_i_node_record record;
    packbuf_text name;
    if (w->path[i].is_item) {
      packbuf_i_schema_word(out, "[");
      packbuf_i_schema_number(out, w->path[i].item);
      packbuf_i_schema_word(out, "]");
      continue;
    }
    if (i) packbuf_i_schema_word(out, ".");
    if (!packbuf_i_fetch_node(w->view, w->path[i].node, &record) ||
        !packbuf_i_string(w->view, record.name_offset, record.name_length, &name))
      continue;
    packbuf_i_schema_string(out, name, 1);
  }
}

/* The start of a line: scope and path. */
static void packbuf_i_schema_head(packbuf_i_schema_out *out, const packbuf_i_schema_walk *w, const packbuf_node *node) {
  packbuf_i_schema_word(out, node->scope ? "{\"value\":\"" : "{\"field\":\"");
  packbuf_i_schema_path(out, w);
  packbuf_i_schema_word(out, "\"");
}

/* The members that follow, in this order; the text of a difference in each. */
typedef enum packbuf_i_schema_member {
  PACKBUF_I_SCHEMA_CODEC,
  PACKBUF_I_SCHEMA_DTYPE,
  PACKBUF_I_SCHEMA_FORM,
  PACKBUF_I_SCHEMA_SHAPE,
  PACKBUF_I_SCHEMA_LOGICAL,
  PACKBUF_I_SCHEMA_PARAMETER,
  PACKBUF_I_SCHEMA_MEMBERS
} packbuf_i_schema_member;

static const char *const packbuf_i_schema_differs[PACKBUF_I_SCHEMA_MEMBERS] = {
    "the column has another codec, or is another kind of node, than is expected",
    "the column has another dtype than is expected",
    "the cells of the column have another form than is expected",
    "the cells of the column have another shape or rank than is expected",
    "the column has another logical type than is expected",
    "the column has another parameter than is expected"};

/* A name of the frozen list (section 24), else the number. */
static void packbuf_i_schema_named(packbuf_i_schema_out *out, const char *member, const char *name, uint64_t number) {
  packbuf_i_schema_word(out, member);
  if (!name) {
    packbuf_i_schema_number(out, number);
    return;
  }
  packbuf_i_schema_word(out, "\"");
  packbuf_i_schema_word(out, name);
  packbuf_i_schema_word(out, "\"");
}

static void packbuf_i_schema_dtype(packbuf_i_schema_out *out, packbuf_dtype dtype) {
  const char *name = packbuf_dtype_name(dtype);
  packbuf_i_schema_named(out, name ? ",\"dtype\":" : ",\"dtype\":[", name, dtype.code);
  if (name) return;
  packbuf_i_schema_word(out, ",");
  packbuf_i_schema_number(out, dtype.bits);
  packbuf_i_schema_word(out, ",");
  packbuf_i_schema_number(out, dtype.lanes);
  packbuf_i_schema_word(out, "]");
}

static void packbuf_i_schema_shape(packbuf_i_schema_out *out, const packbuf_node *node) {
  if (node->codec != PACKBUF_CODEC_NDARRAY) {
    packbuf_i_schema_named(out, ",\"rank\":", NULL, node->rank);
    return;
  }
  packbuf_i_schema_word(out, ",\"shape\":[");
  for (unsigned d = 0; d < node->rank; d++) {
    if (d) packbuf_i_schema_word(out, ",");
    packbuf_i_schema_number(out, node->shape[d]);
  }
  packbuf_i_schema_word(out, "]");
}

static void packbuf_i_schema_write(packbuf_i_schema_out *out, const packbuf_node *node, unsigned member) {
  static const char *const forms[] = {"natural", "list", "array", "tensor", "scalar", "bytes", "media"};
  const int leaf = node->kind == PACKBUF_LEAF, known = packbuf_i_known_codec(node->codec);
  const int numbers = leaf && (!known || packbuf_i_numeric(node->codec));
  switch (member) {
    case PACKBUF_I_SCHEMA_CODEC:
      if (leaf) packbuf_i_schema_named(out, ",\"codec\":", packbuf_codec_name((packbuf_codec)node->codec), node->codec);
      else packbuf_i_schema_named(out, ",\"kind\":", node->kind == PACKBUF_NODE_DICT ? "dict" : "list", 0);
      return;
    case PACKBUF_I_SCHEMA_DTYPE:
      if (numbers) packbuf_i_schema_dtype(out, node->dtype);
      return;
    case PACKBUF_I_SCHEMA_FORM:
      if (numbers || (leaf && node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED))
        packbuf_i_schema_named(out, ",\"form\":", node->form < 7 ? forms[node->form] : NULL, node->form);
      return;
    case PACKBUF_I_SCHEMA_SHAPE:
      if (numbers) packbuf_i_schema_shape(out, node);
      return;
    case PACKBUF_I_SCHEMA_LOGICAL:
      if (node->logical_type) packbuf_i_schema_named(out, ",\"logical_type\":", NULL, node->logical_type);
      return;
    default:
      if (!node->parameter.size) return;
      packbuf_i_schema_word(out, ",\"parameter\":\"");
      packbuf_i_schema_string(out, node->parameter, 0);
      packbuf_i_schema_word(out, "\"");
  }
}

static void packbuf_i_schema_one(packbuf_i_schema_out *out, const packbuf_i_schema_walk *w, const packbuf_node *node) {
  packbuf_i_schema_head(out, w, node);
  for (unsigned member = 0; member < PACKBUF_I_SCHEMA_MEMBERS; member++) packbuf_i_schema_write(out, node, member);
  packbuf_i_schema_word(out, "}");
}

/* The members of a line, from the first comma on, as words: `,"codec":"ndarray","shape":[2]` is "ndarray [2]". What is
 * too long ends in "...". */
static void packbuf_i_schema_words(const char *text, size_t size, char words[PACKBUF_ERROR_TYPE]) {
  const size_t most = PACKBUF_ERROR_TYPE - 4;
  size_t n = 0, i = 0;
  int quoted = 0;
  while (i < size && n <= most && (quoted || text[i] != '}')) {
    const char c = text[i];
    if (!quoted && c == ',' && i + 1 < size && text[i + 1] == '"') { /* the name of a member */
      while (i < size && text[i] != ':') i++;
      if (n) words[n++] = ' ';
    } else if (c == '"') quoted = !quoted;
    else words[n++] = c;
    if (c == '\\' && i + 1 < size && n <= most) words[n++] = text[++i];
    i++;
  }
  if (n > most) {
    for (n = most; n && ((unsigned char)words[n] & 0xC0) == 0x80;) n--;
    memcpy(words + n, "...", 3);
    n += 3;
  }
  words[n] = 0;
}

/* The type of a node in the same words. */
static void packbuf_i_node_words(const packbuf_node *node, char words[PACKBUF_ERROR_TYPE]) {
  char line[512];
  packbuf_i_schema_out out;
  packbuf_i_schema_out_start(&out, line, sizeof line);
  for (unsigned member = 0; member < PACKBUF_I_SCHEMA_MEMBERS; member++) packbuf_i_schema_write(&out, node, member);
  packbuf_i_schema_words(line, out.sink.size < sizeof line ? (size_t)out.sink.size : sizeof line, words);
}

static const char packbuf_i_schema_first[] = "{\"packbuf_schema\":1}\n";

static packbuf_status packbuf_i_schema_too_long(packbuf_error *error) {
  return packbuf_i_fail(error, PACKBUF_LIMIT, "the schema text is longer than limits.head_bytes", PACKBUF_NOWHERE,
                        PACKBUF_NOWHERE);
}

static packbuf_status packbuf_i_schema_all(const packbuf_view *view, packbuf_i_schema_out *out, packbuf_error *error) {
  packbuf_i_schema_walk w;
  uint32_t index;
  packbuf_status status = packbuf_i_check_tables(view, error);
  if (status != PACKBUF_OK) return status;
  packbuf_i_schema_word(out, packbuf_i_schema_first);
  packbuf_i_schema_start(&w, view);
  while (packbuf_i_schema_next(&w, &index)) {
    packbuf_node node;
    status = packbuf_get_node(view, index, &node, error);
    if (status != PACKBUF_OK) return status;
    packbuf_i_schema_one(out, &w, &node);
    packbuf_i_schema_word(out, "\n");
    if (out->sink.size > view->limits.head_bytes) return packbuf_i_schema_too_long(error);
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_schema_done(const packbuf_i_schema_out *out, size_t *size, packbuf_error *error) {
  if (out->sink.size > SIZE_MAX) return packbuf_i_schema_too_long(error);
  if (size) *size = (size_t)out->sink.size;
  if (out->sink.at && out->sink.size > out->sink.capacity)
    return packbuf_i_too_small(error, "the schema text is longer than the destination", PACKBUF_NOWHERE,
                               out->sink.size);
  return PACKBUF_OK;
}

PACKBUF_API packbuf_status packbuf_schema_text(const packbuf_view *view, char *text, size_t capacity, size_t *size,
                                               packbuf_error *error) {
  packbuf_i_schema_out out;
  packbuf_status status;
  packbuf_i_schema_out_start(&out, text, capacity);
  status = packbuf_i_schema_all(view, &out, error);
  return status != PACKBUF_OK ? status : packbuf_i_schema_done(&out, size, error);
}

PACKBUF_API packbuf_status packbuf_schema_line(const packbuf_view *view, uint32_t node, char *text, size_t capacity,
                                               size_t *size, packbuf_error *error) {
  packbuf_i_schema_out out;
  packbuf_i_schema_walk w;
  packbuf_node found;
  packbuf_status status = packbuf_get_node(view, node, &found, error);
  if (status != PACKBUF_OK) return status;
  if (!packbuf_i_schema_path_of(view, node, &w))
    return packbuf_i_broken(error, PACKBUF_RULE_N3, packbuf_i_node_at(view, node), PACKBUF_NOWHERE);
  packbuf_i_schema_out_start(&out, text, capacity);
  packbuf_i_schema_one(&out, &w, &found);
  return packbuf_i_schema_done(&out, size, error);
}

/* ---- fingerprints ---- */

static void packbuf_i_schema_digest(packbuf_i_sha256 *hash, uint8_t *fingerprint) {
  uint8_t digest[32];
  packbuf_i_sha256_end(hash, digest);
  memcpy(fingerprint, digest, PACKBUF_FINGERPRINT);
}

PACKBUF_API packbuf_status packbuf_fingerprint(const packbuf_view *view, uint8_t fingerprint[PACKBUF_FINGERPRINT],
                                               packbuf_error *error) {
  packbuf_i_sha256 hash;
  packbuf_i_schema_out out;
  packbuf_status status;
  packbuf_i_sha256_start(&hash);
  packbuf_i_schema_out_start(&out, NULL, 0);
  out.hash = &hash;
  status = packbuf_i_schema_all(view, &out, error);
  if (status == PACKBUF_OK) packbuf_i_schema_digest(&hash, fingerprint);
  return status;
}

PACKBUF_API void packbuf_fingerprint_of(const char *text, size_t size, uint8_t fingerprint[PACKBUF_FINGERPRINT]) {
  packbuf_i_sha256 hash;
  packbuf_i_sha256_start(&hash);
  packbuf_i_sha256_add(&hash, text, size);
  packbuf_i_schema_digest(&hash, fingerprint);
}

/* ---- what is expected ---- */

static packbuf_status packbuf_i_mismatch(packbuf_error *error, const char *message) {
  return packbuf_i_fail(error, PACKBUF_SCHEMA_MISMATCH, message, PACKBUF_NOWHERE, PACKBUF_NOWHERE);
}

PACKBUF_API packbuf_status packbuf_expect_fingerprint(const packbuf_view *view,
                                                      const uint8_t fingerprint[PACKBUF_FINGERPRINT],
                                                      packbuf_error *error) {
  uint8_t found[PACKBUF_FINGERPRINT];
  packbuf_status status = packbuf_fingerprint(view, found, error);
  if (status != PACKBUF_OK || memcmp(found, fingerprint, sizeof found) == 0) return status;
  return packbuf_i_mismatch(error,
                            "the columns are not those of the fingerprint, which cannot say where: compare schema "
                            "texts");
}

/* The length of the line at `text`, without its newline. */
static size_t packbuf_i_line_length(const char *text, size_t size) {
  const char *end = size ? (const char *)memchr(text, '\n', size) : NULL;
  return end ? (size_t)(end - text) : size;
}

/* Whether a line starts with the node's scope and path; then *out stands behind them. */
static int packbuf_i_schema_starts(packbuf_i_schema_out *out, const packbuf_i_schema_walk *w, const packbuf_node *node,
                                   const char *line, size_t length) {
  packbuf_i_schema_out_start(out, NULL, 0);
  out->expected = line;
  out->left = length;
  packbuf_i_schema_head(out, w, node);
  return !out->differs;
}

/* Path and type of an expected line, for an error. */
static void packbuf_i_schema_expected(const char *line, size_t length, packbuf_error *error) {
  char path[PACKBUF_ERROR_PATH] = {0};
  size_t at = 10, size = 0; /* after {"field":" */
  if (!error) return;
  for (; at < length && line[at] != '"'; at++) {
    if (line[at] == '\\' && at + 1 < length) at++;
    if (size < sizeof path) path[size++] = line[at];
  }
  packbuf_i_set_path(error, path, size);
  if (at < length) packbuf_i_schema_words(line + at + 1, length - at - 1, error->expected);
}

/* The node is not what the line expects: says how. */
static packbuf_status packbuf_i_schema_drifted(const packbuf_i_schema_walk *w, const packbuf_node *node,
                                               const char *text, size_t size, packbuf_drift *drift,
                                               packbuf_error *error) {
  packbuf_i_schema_out out;
  size_t length = packbuf_i_line_length(text, size), at;
  unsigned member = 0;
  drift->node = node->index;
  if (packbuf_i_schema_starts(&out, w, node, text, length)) {
    drift->expected.data = text, drift->expected.size = length;
    at = length - out.left; /* where the members begin */
    for (; member < PACKBUF_I_SCHEMA_PARAMETER; member++) {
      packbuf_i_schema_write(&out, node, member);
      if (out.differs) break;
    }
    packbuf_i_mismatch(error, packbuf_i_schema_differs[member]);
    if (!error) return PACKBUF_SCHEMA_MISMATCH;
    packbuf_node_path(w->view, node->index, error->path, sizeof error->path);
    packbuf_i_schema_words(text + at, length - at, error->expected);
    packbuf_i_node_words(node, error->found);
    return PACKBUF_SCHEMA_MISMATCH;
  }
  for (at = 0; at < size; at += packbuf_i_line_length(text + at, size - at) + 1)
    if (packbuf_i_schema_starts(&out, w, node, text + at, packbuf_i_line_length(text + at, size - at))) break;
  if (at < size) { /* it comes later: what was expected here is lacking */
    drift->node = PACKBUF_NO_NODE;
    drift->expected.data = text, drift->expected.size = length;
    packbuf_i_mismatch(error, "a column that is expected is not there");
    packbuf_i_schema_expected(text, length, error);
    return PACKBUF_SCHEMA_MISMATCH;
  }
  packbuf_i_mismatch(error, "a column is there that is not expected");
  if (!error) return PACKBUF_SCHEMA_MISMATCH;
  packbuf_node_path(w->view, node->index, error->path, sizeof error->path);
  packbuf_i_node_words(node, error->found);
  return PACKBUF_SCHEMA_MISMATCH;
}

PACKBUF_API packbuf_status packbuf_expect_schema(const packbuf_view *view, const char *text, size_t size,
                                                 packbuf_drift *drift, packbuf_error *error) {
  packbuf_i_schema_walk w;
  packbuf_drift local;
  uint32_t index;
  const size_t first = sizeof packbuf_i_schema_first - 1;
  packbuf_status status;
  if (!drift) drift = &local;
  drift->expected.data = NULL, drift->expected.size = 0;
  drift->node = PACKBUF_NO_NODE;
  if (!text || size < first || memcmp(text, packbuf_i_schema_first, first) != 0)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "not a schema text of version 1", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  status = packbuf_i_check_tables(view, error);
  if (status != PACKBUF_OK) return status;
  text += first, size -= first;
  packbuf_i_schema_start(&w, view);
  while (packbuf_i_schema_next(&w, &index)) {
    const size_t length = packbuf_i_line_length(text, size);
    packbuf_i_schema_out out;
    packbuf_node node;
    status = packbuf_get_node(view, index, &node, error);
    if (status != PACKBUF_OK) return status;
    packbuf_i_schema_out_start(&out, NULL, 0);
    out.expected = text ? text : "";
    out.left = length;
    packbuf_i_schema_one(&out, &w, &node);
    if (out.differs || out.left) return packbuf_i_schema_drifted(&w, &node, text, size, drift, error);
    text += length < size ? length + 1 : length;
    size -= length < size ? length + 1 : length;
  }
  if (size == 0) return PACKBUF_OK;
  drift->expected.data = text, drift->expected.size = packbuf_i_line_length(text, size);
  packbuf_i_mismatch(error, "a column that is expected is not there");
  packbuf_i_schema_expected(text, drift->expected.size, error);
  return PACKBUF_SCHEMA_MISMATCH;
}
