/* tools/cmd_inspect.c: `packbuf inspect`: what a packed buffer holds and what it costs, from its head and the block
 * headers in its index: the rest is never touched.
 * May use: packbuf.h, tables, packing. Must not know: cells beyond those that lie in the head. */
#include "table.h"

/* What the buffers of a node cost. */
typedef struct cost {
  uint64_t raw, stored;
  int in_head; /* all of its values lie in the head */
  plain_reason plain; /* of its data */
  char storage[128];
} cost;

static const char *storage_word(unsigned storage) {
  static const char *const words[] = {"?", "stored", "inline", "constant", "sequence", "alias"};
  return words[storage <= 5 ? storage : 0];
}

static const char *role_word(unsigned role) {
  static const char *const words[] = {"?",         "data",       "offsets",      "lengths", "shape",
                                      "ndims",     "validity",   "missing",      "types",   "item_offsets",
                                      "row_index", "prefix_row", "prefix_length"};
  return words[role <= 12 ? role : 0];
}

static uint64_t raw_bytes(const packbuf_buffer *buffer) {
  uint64_t bits = (uint64_t)buffer->dtype.bits * buffer->dtype.lanes, count = buffer->count;
  return bits % 8 ? (count / 8) * bits + ((count % 8) * bits + 7) / 8
                  : count * (bits / 8); /* below 2^63: checked when opened */
}

/* At most 2^63, as a and b are. */
static uint64_t add_bytes(uint64_t a, uint64_t b) {
  const uint64_t most = (uint64_t)1 << 63;
  return a > most - b ? most : a + b;
}

static void get_buffer(const packbuf_view *view, const char *file, uint32_t index, packbuf_buffer *buffer) {
  packbuf_error error;
  packbuf_status status = packbuf_get_buffer_at(view, index, buffer, &error);
  if (status && !unreadable(status)) fail_status(file, &error);
}

/* Bytes of block headers: of any packing but plain (section 5 of the spec) 16 for each 8 KiB. */
static uint64_t header_bytes(const packbuf_buffer *buffer) {
  return buffer->packing ? 16 * (raw_bytes(buffer) / 8192 + (raw_bytes(buffer) % 8192 != 0)) : 0;
}

/* How the data of a leaf are stored, in a word or a few. */
static void storage_words(const packbuf_view *view, const char *file, const packbuf_buffer *buffer, char *to,
                          size_t size) {
  if (buffer->storage == PACKBUF_ALIAS) {
    packbuf_buffer other;
    char path[32];
    get_buffer(view, file, buffer->alias_of, &other);
    if (packbuf_node_path(view, other.node, path, sizeof path) >= sizeof path) memcpy(path + sizeof path - 4, "...", 4);
    snprintf(to, size, "= %s", path);
  } else if (buffer->packing == 1) {
    text words = {NULL, 0, 0};
    block_modes modes;
    count_modes(buffer, &modes);
    modes_word(&modes, &words);
    snprintf(to, size, "%.*s", (int)words.size, words.data ? words.data : "");
    text_free(&words);
  } else if (buffer->packing) {
    snprintf(to, size, "packing %u", (unsigned)buffer->packing);
  } else {
    snprintf(to, size, "%s", storage_word(buffer->storage));
  }
}

/* Adds what a leaf shares: "16 rows" when it stores no more than these, "prefixes" of other rows. */
static void note_sharing(const packbuf_view *view, const packbuf_node *node, cost *to) {
  size_t used = strlen(to->storage);
  packbuf_column column;
  if (node->kind != PACKBUF_LEAF || packbuf_open_column(view, node->index, &column, NULL)) return;
  if (column.row_index.storage)
    used += (size_t)snprintf(to->storage + used, sizeof to->storage - used, ", %llu rows",
                             (unsigned long long)column.stored_rows);
  if (column.prefix_row.storage && used < sizeof to->storage)
    snprintf(to->storage + used, sizeof to->storage - used, ", prefixes");
}

/* Of the node alone, or with all below it: their buffers follow its own. */
static void count_cost(const packbuf_view *view, const char *file, const packbuf_node *node, int with_children,
                       cost *to) {
  packbuf_buffer buffer;
  packbuf_node last = *node;
  packbuf_error error;
  uint32_t i;
  memset(to, 0, sizeof *to);
  to->in_head = node->kind == PACKBUF_LEAF && node->descendants == 0;
  if (with_children && packbuf_get_node(view, node->index + node->descendants, &last, &error))
    fail_status(file, &error);
  for (i = node->first_buffer; i < last.first_buffer + last.buffer_count; i++) {
    get_buffer(view, file, i, &buffer);
    to->raw = add_bytes(to->raw, raw_bytes(&buffer));
    if (buffer.storage == PACKBUF_STORED) to->stored += buffer.length + header_bytes(&buffer);
    if (buffer.storage == PACKBUF_STORED || buffer.storage == PACKBUF_ALIAS) to->in_head = 0;
    if (buffer.role != PACKBUF_ROLE_DATA || buffer.node != node->index) continue;
    to->plain = why_plain(view, node, &buffer);
    storage_words(view, file, &buffer, to->storage, sizeof to->storage);
  }
  note_sharing(view, node, to);
}

static void shape_word(const packbuf_node *node, text *to) {
  unsigned i;
  if (node->kind != PACKBUF_LEAF) return;
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    for (i = 0; i < node->rank; i++) text_printf(to, i ? "x%llu" : "%llu", (unsigned long long)node->shape[i]);
  } else if (node->rank) {
    for (i = 0; i < node->rank; i++) text_puts(to, i ? "x?" : "?");
  }
}

/* The cell of a batch value that lies in the head, shortened; nothing else. */
static void head_cell(const packbuf_view *view, const packbuf_node *node, const cost *costs, text *to) {
  packbuf_arena arena;
  packbuf_value value;
  if (node->scope != 1 || !costs->in_head || costs->raw > 256) return;
  packbuf_arena_init(&arena, NULL);
  if (packbuf_read_cell(view, node->index, 0, &arena, &value, NULL) == PACKBUF_OK) print_value(to, &value);
  packbuf_arena_free(&arena);
}

static void format_ratio(const cost *costs, char *to, size_t size) {
  if (!costs->raw) snprintf(to, size, "%s", "");
  else if (!costs->stored) snprintf(to, size, "%s", "-");
  else snprintf(to, size, "%.2f", (double)costs->raw / (double)costs->stored);
}

static void add_line(table *to, const packbuf_view *view, const packbuf_node *node, unsigned depth, const cost *costs) {
  text word = {NULL, 0, 0};
  char small[64];
  unsigned i;
  for (i = 0; i < depth; i++) text_puts(&word, "  ");
  if (node->parent == PACKBUF_NO_NODE || node->name.size) {
    text_add(&word, node->name.data, node->name.size);
  } else {
    char *path = node_path(view, node->index), *bracket = strrchr(path, '[');
    text_puts(&word, bracket ? bracket : path);
    free(path);
  }
  table_cell(to, word.data ? word.data : "", word.size);
  table_puts(to, node_word(node));
  dtype_word(node->dtype, small, sizeof small);
  table_puts(to, small);
  word.size = 0;
  shape_word(node, &word);
  table_cell(to, word.data ? word.data : "", word.size);
  table_puts(to, costs->storage);
  table_number(to, node->rows);
  table_number(to, costs->raw);
  table_number(to, costs->stored);
  format_ratio(costs, small, sizeof small);
  table_puts(to, small);
  word.size = 0;
  if (node->logical_type == 1) text_printf(&word, "timestamp %.*s ", (int)node->parameter.size, node->parameter.data);
  else if (node->logical_type) text_printf(&word, "logical type %u ", (unsigned)node->logical_type);
  else if (node->parameter.size) text_printf(&word, "%.*s ", (int)node->parameter.size, node->parameter.data);
  head_cell(view, node, costs, &word);
  if (costs->plain > PLAIN_SHORT) text_printf(&word, "plain: %s", plain_word(costs->plain));
  table_cell(to, word.data ? word.data : "", word.size);
  text_free(&word);
}

static uint64_t all_raw_bytes(const packbuf_view *view, const char *file) {
  packbuf_buffer buffer;
  uint64_t sum = 0;
  uint32_t i;
  for (i = 0; i < view->buffer_count; i++) {
    get_buffer(view, file, i, &buffer);
    sum = add_bytes(sum, raw_bytes(&buffer));
  }
  return sum;
}

static void print_header(const packbuf_view *view, const char *file, text *to) {
  char profile[24];
  if (profile_word(view->profile)) snprintf(profile, sizeof profile, "%s", profile_word(view->profile));
  else snprintf(profile, sizeof profile, "%u", (unsigned)view->profile);
  text_printf(to, "packbuf %d.%u %s, profile %s: %llu rows, %lu fields, %lu batch values\n", PACKBUF_FORMAT_MAJOR,
              (unsigned)view->version_minor, view->kind == 1 ? "batch" : "manifest", profile,
              (unsigned long long)view->rows, (unsigned long)view->field_count, (unsigned long)view->value_count);
  text_printf(to, "%llu bytes (raw %llu): head %llu, index %llu, data %llu; alignment %u; %s\n\n",
              (unsigned long long)view->total_length, (unsigned long long)all_raw_bytes(view, file),
              (unsigned long long)view->head_length, (unsigned long long)view->index_length,
              (unsigned long long)(view->total_length - view->head_length - view->index_length),
              1u << view->alignment_exponent, view->optional_features & 1 ? "data checksums" : "no data checksums");
}

static void print_metadata(const packbuf_view *view, const char *file, output *out) {
  table lines = {{NULL, 0}, 3, 0};
  packbuf_metadata pair;
  packbuf_error error;
  uint32_t i;
  if (!view->metadata_count) return;
  table_puts(&lines, "METADATA OF");
  table_puts(&lines, "KEY");
  table_puts(&lines, "VALUE");
  for (i = 0; i < view->metadata_count; i++) {
    char *path;
    if (packbuf_get_metadata(view, i, &pair, &error)) fail_status(file, &error);
    path = pair.node == PACKBUF_NO_NODE ? NULL : node_path(view, pair.node);
    table_puts(&lines, path ? path : "(buffer)");
    table_cell(&lines, pair.key.data, pair.key.size);
    table_cell(&lines, pair.text.data, pair.text.size);
    free(path);
  }
  text_puts(&out->buffer, "\n");
  table_print(&lines, out);
}

/* What a manifest lists. */
static void print_fragments(const packbuf_view *view, const char *file, output *out) {
  static const char *const heading[] = {"FRAGMENT", "APPENDS", "ROWS", "BYTES", "HEAD+INDEX", "CHECKSUM"};
  table lines = {{NULL, 0}, 6, 0x0cu << 1};
  const packbuf_fragment *list;
  packbuf_arena arena;
  packbuf_error error;
  uint64_t count, i;
  char cell[64];
  unsigned k;
  packbuf_arena_init(&arena, NULL);
  if (packbuf_manifest_read(view, &arena, &list, &count, NULL, &error)) fail_status(file, &error);
  for (k = 0; k < 6; k++) table_puts(&lines, heading[k]);
  for (i = 0; i < count; i++) {
    table_cell(&lines, list[i].key.data, list[i].key.size);
    table_puts(&lines, list[i].appends ? "fields" : "rows");
    snprintf(cell, sizeof cell, "%llu:%llu", (unsigned long long)list[i].first_row,
             (unsigned long long)(list[i].first_row + list[i].rows));
    table_puts(&lines, cell);
    snprintf(cell, sizeof cell, "%llu", (unsigned long long)list[i].length);
    table_puts(&lines, cell);
    snprintf(cell, sizeof cell, "%llu", (unsigned long long)list[i].head_length);
    table_puts(&lines, cell);
    snprintf(cell, sizeof cell, "%08lx", (unsigned long)list[i].head_checksum);
    table_puts(&lines, cell);
  }
  text_puts(&out->buffer, "\n");
  table_print(&lines, out);
  packbuf_arena_free(&arena);
}

static void inspect_people(const packbuf_view *view, const char *file, output *out) {
  static const char *const heading[] = {"CODEC", "DTYPE", "SHAPE", "STORAGE", "ROWS", "RAW", "STORED", "RATIO", ""};
  packbuf_error error;
  packbuf_node node;
  cost costs;
  uint32_t i, k, ends[256], depth = 0;
  unsigned scope;
  print_header(view, file, &out->buffer);
  for (scope = 0; scope < 2; scope++) {
    table lines = {{NULL, 0}, 10, 0xfu << 5};
    if (scope ? !view->value_count : !view->field_count) continue;
    table_puts(&lines, scope ? "BATCH VALUE" : "FIELD");
    for (k = 0; k < 9; k++) table_puts(&lines, heading[k]);
    for (i = 0; i < view->node_count; i++) {
      if (packbuf_get_node(view, i, &node, &error)) fail_status(file, &error);
      while (depth && i > ends[depth - 1]) depth--;
      count_cost(view, file, &node, 1, &costs);
      if (node.scope == scope) add_line(&lines, view, &node, depth, &costs);
      if (node.descendants && depth < 256) ends[depth++] = i + node.descendants;
    }
    depth = 0;
    if (scope && view->field_count) text_puts(&out->buffer, "\n");
    table_print(&lines, out);
  }
  print_metadata(view, file, out);
  if (view->kind == 2) print_fragments(view, file, out);
}

/* ---- for machines ---- */

static void json_blocks(const packbuf_buffer *buffer, text *to) {
  block_modes modes;
  text_printf(to, ",\"blocks\":%llu,\"header_bytes\":%llu", (unsigned long long)(header_bytes(buffer) / 16),
              (unsigned long long)header_bytes(buffer));
  if (buffer->packing != 1) return;
  count_modes(buffer, &modes);
  text_puts(to, ",\"modes\":");
  modes_json(&modes, to);
}

static void json_buffers(const packbuf_view *view, const char *file, const packbuf_node *node, text *to) {
  packbuf_buffer buffer;
  char dtype[40];
  uint32_t i;
  text_puts(to, ",\"buffers\":[");
  for (i = 0; i < node->buffer_count; i++) {
    get_buffer(view, file, node->first_buffer + i, &buffer);
    dtype_word(buffer.dtype, dtype, sizeof dtype);
    if (buffer.dtype.bits == 1) snprintf(dtype, sizeof dtype, "uint1");
    text_printf(to, "%s{\"role\":\"%s\"", i ? "," : "", role_word(buffer.role));
    if (buffer.role == PACKBUF_ROLE_SHAPE) text_printf(to, ",\"dim\":%u", (unsigned)buffer.dim);
    text_printf(to, ",\"storage\":\"%s\",\"packing\":%u,\"dtype\":\"%s\",\"count\":%llu", storage_word(buffer.storage),
                (unsigned)buffer.packing, dtype, (unsigned long long)buffer.count);
    if (buffer.storage == PACKBUF_STORED || buffer.storage == PACKBUF_ALIAS)
      text_printf(to, ",\"offset\":%llu,\"length\":%llu", (unsigned long long)buffer.offset,
                  (unsigned long long)buffer.length);
    if (buffer.storage == PACKBUF_STORED && buffer.packing) json_blocks(&buffer, to);
    if (why_plain(view, node, &buffer))
      text_printf(to, ",\"plain_because\":\"%s\"", plain_word(why_plain(view, node, &buffer)));
    text_puts(to, "}");
  }
  text_puts(to, "]");
}

static void json_sharing(const packbuf_view *view, const packbuf_node *node, text *to) {
  packbuf_column column;
  if (node->kind != PACKBUF_LEAF || packbuf_open_column(view, node->index, &column, NULL)) return;
  if (column.row_index.storage) text_printf(to, ",\"stored_rows\":%llu", (unsigned long long)column.stored_rows);
  if (column.prefix_row.storage) text_puts(to, ",\"prefixes\":true");
}

static void json_node(const packbuf_view *view, const char *file, const packbuf_node *node, text *to) {
  char dtype[40], *path = node_path(view, node->index);
  cost costs;
  unsigned i;
  count_cost(view, file, node, 0, &costs);
  dtype_word(node->dtype, dtype, sizeof dtype);
  text_puts(to, "{\"path\":");
  print_string(to, path, strlen(path));
  free(path);
  text_printf(to, ",\"scope\":\"%s\",\"kind\":\"%s\"", node->scope ? "value" : "field",
              node->kind == PACKBUF_LEAF ? "leaf" : node_word(node));
  if (node->kind == PACKBUF_LEAF) text_printf(to, ",\"codec\":\"%s\"", node_word(node));
  if (*dtype)
    text_printf(to, ",\"dtype\":\"%s\",\"form\":%u,\"rank\":%u", dtype, (unsigned)node->form, (unsigned)node->rank);
  if (node->codec == PACKBUF_CODEC_NDARRAY) {
    text_puts(to, ",\"shape\":[");
    for (i = 0; i < node->rank; i++) text_printf(to, i ? ",%llu" : "%llu", (unsigned long long)node->shape[i]);
    text_puts(to, "]");
  }
  if (node->logical_type) text_printf(to, ",\"logical_type\":%u", (unsigned)node->logical_type);
  if (node->parameter.size) {
    text_puts(to, ",\"parameter\":");
    print_string(to, node->parameter.data, node->parameter.size);
  }
  json_sharing(view, node, to);
  text_printf(to, ",\"rows\":%llu,\"raw_bytes\":%llu,\"stored_bytes\":%llu", (unsigned long long)node->rows,
              (unsigned long long)costs.raw, (unsigned long long)costs.stored);
  if (node->scope && costs.in_head && costs.raw <= 256) {
    size_t before = to->size, start;
    text_puts(to, ",\"value\":");
    start = to->size;
    head_cell(view, node, &costs, to);
    if (to->size == start) to->size = before;
  }
  json_buffers(view, file, node, to);
  text_puts(to, "}");
}

static void json_metadata(const packbuf_view *view, const char *file, text *to) {
  packbuf_metadata pair;
  packbuf_error error;
  uint32_t i, pass, last = 0;
  int any = 0;
  text_puts(to, "\"metadata\":{");
  for (pass = 0; pass < 2; pass++) /* the buffer's come last in the table, first here */
    for (i = 0; i < view->metadata_count; i++) {
      char *path;
      if (packbuf_get_metadata(view, i, &pair, &error)) fail_status(file, &error);
      if ((pair.node == PACKBUF_NO_NODE) != (pass == 0)) continue;
      if (any && last == pair.node) {
        text_puts(to, ",");
      } else {
        path = pair.node == PACKBUF_NO_NODE ? NULL : node_path(view, pair.node);
        text_puts(to, any ? "}," : "");
        print_string(to, path ? path : "", path ? strlen(path) : 0);
        text_puts(to, ":{");
        free(path);
      }
      any = 1;
      last = pair.node;
      print_string(to, pair.key.data, pair.key.size);
      text_puts(to, ":");
      print_string(to, pair.text.data, pair.text.size);
    }
  text_puts(to, any ? "}}" : "}");
}

static void inspect_machine(const packbuf_view *view, const char *file, output *out) {
  packbuf_error error;
  packbuf_node node;
  text *to = &out->buffer;
  uint32_t i;
  text_printf(to,
              "{\"version\":\"%d.%u\",\"kind\":\"%s\",\"profile\":%u,\"profile_name\":\"%s\",\"rows\":%llu,\"fields\":%"
              "lu,\"values\":%lu,",
              PACKBUF_FORMAT_MAJOR, (unsigned)view->version_minor, view->kind == 1 ? "batch" : "manifest",
              (unsigned)view->profile, profile_word(view->profile) ? profile_word(view->profile) : "",
              (unsigned long long)view->rows, (unsigned long)view->field_count, (unsigned long)view->value_count);
  text_printf(to,
              "\"total_length\":%llu,\"head_length\":%llu,\"index_length\":%llu,\"raw_bytes\":%llu,\"alignment\":%u,"
              "\"data_checksums\":%s,\"row_order_token\":\"",
              (unsigned long long)view->total_length, (unsigned long long)view->head_length,
              (unsigned long long)view->index_length, (unsigned long long)all_raw_bytes(view, file),
              1u << view->alignment_exponent, view->optional_features & 1 ? "true" : "false");
  for (i = 0; i < 16; i++) text_printf(to, "%02x", (unsigned)view->row_order_token[i]);
  text_puts(to, "\",");
  json_metadata(view, file, to);
  text_puts(to, ",\"nodes\":[");
  for (i = 0; i < view->node_count; i++) {
    if (packbuf_get_node(view, i, &node, &error)) fail_status(file, &error);
    text_puts(to, i ? ",\n" : "\n");
    json_node(view, file, &node, to);
    output_text(out);
  }
  text_puts(to, view->node_count ? "\n]}\n" : "]}\n");
}

int run_inspect(const verb *command, int argc, char **argv) {
  int json = 0;
  strings rest = {NULL, 0};
  const option options[] = {{0, "json", &json, NULL, NULL}, {0, NULL, NULL, NULL, NULL}};
  source from;
  packbuf_view view;
  output out;
  parse_options(command, argc, argv, options, &rest);
  if (rest.count != 1) fail_usage(command, "one FILE.pbuf is needed");
  open_packed(command, &from, &view, rest.items[0], NULL);
  output_open(&out, "-");
  if (json) inspect_machine(&view, from.name, &out);
  else inspect_people(&view, from.name, &out);
  output_close(&out);
  source_close(&from);
  strings_free(&rest);
  return TOOL_OK;
}
