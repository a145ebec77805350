/* tests/exchange_arrow.c: packed buffers as Arrow's arrays and back. Every valid vector, and batches of everything, go
 * out in several selections, are walked byte by byte, and come back as what they were but for what Arrow has no word
 * for; children are moved, memory runs out, and what breaks the ABI's rules is refused by name.
 * May use: packbuf_exchange.h, exchange.h, everything.h, failing.h, sealing.h, tap.h, the vectors. Must not know: how
 * arrays are made. */
#include "exchange.h"
#include "everything.h"
#include "failing.h"
#include "sealing.h"
#include <dirent.h>

static packbuf_error error;

static const char *line(void) {
  static char text[512];
  packbuf_error_format(&error, text, sizeof text);
  return text;
}

/* A packed batch with all of it chosen. */
typedef struct packed {
  packbuf_arena arena;
  packbuf_batch batch;
  void *data;
  uint64_t size;
  packbuf_view view;
  packbuf_selection selection;
} packed;

static int chooses(packed *p, packbuf_row_selection rows) {
  return packbuf_select(&p->view, 0, NULL, 0, rows, &p->arena, &p->selection, &error) == PACKBUF_OK;
}

static int opens(packed *p) {
  return packbuf_pack(&p->batch, &p->data, &p->size, &error) == PACKBUF_OK &&
         packbuf_open(&p->view, p->data, p->size, 0, NULL, &error) == PACKBUF_OK && chooses(p, packbuf_rows_all());
}

static void begin(packed *p, uint64_t rows) {
  packbuf_options options = packbuf_default_options();
  options.row_sharing = 0;
  packbuf_arena_init(&p->arena, NULL);
  (void)packbuf_batch_init(&p->batch, rows, &p->arena, &options, &error);
}

static uint32_t node_of(packed *p, const char *path) {
  packbuf_node node;
  return packbuf_find(&p->view, 0, path, &node, &error) == PACKBUF_OK ? node.index : PACKBUF_NO_NODE;
}

static int inside(const packed *p, const void *at) {
  return (const uint8_t *)at >= (const uint8_t *)p->data && (const uint8_t *)at < (const uint8_t *)p->data + p->size;
}

/* ---- there and back ---- */

/* What differs, as far as JSON has it. */
static void note_values(const packbuf_value *in, const packbuf_value *out) {
  char text[2][800];
  size_t size;
  for (unsigned i = 0; i < 2; i++) {
    const packbuf_value *value = i ? out : in;
    if (value->kind == PACKBUF_DICT) {
      for (size_t k = 0; k < in->as.dict.count; k++) {
        const packbuf_entry *entry = &in->as.dict.entries[k];
        const packbuf_value *other = NULL;
        for (size_t m = 0; m < out->as.dict.count; m++)
          if (packbuf_equal(&out->as.dict.entries[m].key, &entry->key)) other = &out->as.dict.entries[m].value;
        if (i == 0 && (!other || !exchange_same(&entry->value, other)))
          tap_note("%.*s: kind %d, came back as kind %d", (int)entry->key.as.text.size, entry->key.as.text.data,
                   entry->value.kind, other ? other->kind : -1);
      }
    }
    memset(text[i], 0, sizeof text[i]);
    (void)packbuf_json_write(value, text[i], sizeof text[i] - 1, &size, NULL);
    tap_note("%s %s", i ? "out" : "in", text[i]);
  }
}

/* 1: each chosen row, through Arrow and a batch of its own, is what it was. */
static int comes_back(const packbuf_selection *selection, unsigned flags, const char **why) {
  counting count = {0, 0};
  packbuf_export what = exporting(selection, PACKBUF_NO_NODE, &count);
  struct ArrowSchema schema;
  struct ArrowArray array;
  const struct ArrowArray *chunk = &array;
  packed back;
  packbuf_value *in, *out;
  what.flags = flags;
  *why = "packbuf_arrow_schema";
  if (packbuf_arrow_schema(&what, &schema, &error))
    return error.code >= PACKBUF_UNSUPPORTED_VERSION && count.taken == count.released;
  *why = "packbuf_arrow_array";
  if (packbuf_arrow_array(&what, &array, &error)) {
    schema.release(&schema);
    return error.code >= PACKBUF_UNSUPPORTED_VERSION && count.taken == count.released;
  }
  *why = exchange_walk(&schema, &array);
  if (*why) return 0;
  begin(&back, selection->rows);
  *why = "packbuf_arrow_import";
  if (packbuf_arrow_import(&back.batch, &schema, &chunk, 1, &error) == PACKBUF_OK && (*why = "opens", opens(&back))) {
    in = (packbuf_value *)packbuf_arena_alloc(&back.arena, (size_t)(selection->rows + 1) * sizeof *in, 8);
    out = (packbuf_value *)packbuf_arena_alloc(&back.arena, (size_t)(selection->rows + 1) * sizeof *out, 8);
    *why = "values";
    if (packbuf_select_values(selection, 0, selection->rows, &back.arena, in, &error) == PACKBUF_OK &&
        packbuf_read_rows(&back.view, 0, selection->rows, &back.arena, out, &error) == PACKBUF_OK) {
      *why = "a row is another";
      for (uint64_t i = 0; i < selection->rows && *why; i++)
        if (!exchange_same(&in[i], &out[i])) {
          error.row = i;
          note_values(&in[i], &out[i]);
          array.release(&array);
          schema.release(&schema);
          packbuf_arena_free(&back.arena);
          return 0;
        }
      *why = NULL;
    }
  }
  if (*why && error.code == PACKBUF_DEPTH) *why = NULL; /* structs that are deeper than expansion goes */
  array.release(&array);
  schema.release(&schema);
  packbuf_arena_free(&back.arena);
  if (!*why && (count.taken != count.released || count.taken == 0)) *why = "the hold is not balanced";
  return *why == NULL;
}

/* All rows, a range that begins within a byte, a range backwards, a list. */
static int all_ways(packed *p, const char *name) {
  static const int64_t list[] = {-1, 0, 0};
  const packbuf_row_selection ways[] = {packbuf_rows_all(), packbuf_rows_range(3, PACKBUF_ROWS_END, 1),
                                        packbuf_rows_range(PACKBUF_ROWS_END, PACKBUF_ROWS_BEGIN, -2),
                                        packbuf_rows_range(8, 17, 1), packbuf_rows_index(list, p->view.rows ? 3 : 0)};
  for (unsigned i = 0; i < 5; i++) {
    for (unsigned flags = 0; flags < 8; flags += i ? 5 : 1) {
      const char *why = "select";
      if (flags & PACKBUF_EXPORT_NO_COPY) continue;
      error.code = PACKBUF_OK;
      if (chooses(p, ways[i]) && comes_back(&p->selection, flags, &why)) continue;
      tap_note("%s, selection %u, flags %u: %s, row %lu: %s", name, i, flags, why ? why : "status",
               (unsigned long)error.row, line());
      return 0;
    }
  }
  return chooses(p, packbuf_rows_all());
}

static void vectors(void) {
  static const char folder[] = "spec/vectors/valid";
  struct dirent *entry;
  DIR *open_folder = opendir(folder);
  unsigned seen = 0, good = 0;
  while (open_folder && (entry = readdir(open_folder)) != NULL) {
    char path[512];
    packed p;
    FILE *file;
    const size_t length = strlen(entry->d_name);
    if (length < 6 || strcmp(entry->d_name + length - 5, ".pbuf") != 0) continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    memset(&p, 0, sizeof p);
    packbuf_arena_init(&p.arena, NULL);
    if ((file = fopen(path, "rb")) == NULL) continue;
    p.data = packbuf_arena_alloc(&p.arena, 1 << 22, 64);
    p.size = p.data ? fread(p.data, 1, 1 << 22, file) : 0;
    fclose(file);
    if (packbuf_open(&p.view, p.data, p.size, 0, NULL, &error) == PACKBUF_OK && p.view.rows < 100000) {
      seen++;
      good += (unsigned)all_ways(&p, entry->d_name);
    }
    packbuf_arena_free(&p.arena);
  }
  if (open_folder) closedir(open_folder);
  tap_ok(seen > 50 && good == seen, "%u of %u valid vectors come back through Arrow", good, seen);
}

/* Complex numbers, which are lists of two to Arrow, below lists that expansion took apart. */
static void of_complexes(void) {
  const char *const rows = "[{\"z\" s.c64(1 2)}] [{\"z\" s.c64(3 4)} {\"z\" s.c64(5 6)}] "
                           "[{\"z\" s.c64(7 8)} {\"z\" null}]";
  packed p;
  size_t n;
  begin(&p, 3);
  tap_ok(!packbuf_add_values(&p.batch, "f", mv_column(rows, &n), &error) && opens(&p) && all_ways(&p, "complexes"),
         "complex numbers in lists of dicts come back");
  packbuf_arena_free(&p.arena);
}

static void of_everything(void) {
  for (unsigned packing = 1; packing <= 4; packing++) {
    packed p;
    everything *e = make_everything();
    packbuf_options options = packbuf_default_options();
    options.packing = (uint8_t)packing;
    packbuf_arena_init(&p.arena, NULL);
    (void)packbuf_batch_init(&p.batch, ROWS, &p.arena, &options, &error);
    tap_ok(!add_everything(&p.batch, e, &error) && opens(&p) && all_ways(&p, "everything"),
           "everything, packing %u, comes back", packing);
    packbuf_arena_free(&p.arena);
  }
}

/* ---- lent, moved, released ---- */

static packed small; /* four rows: numbers, text, ragged numbers, dicts with lists */
static const int64_t small_numbers[] = {1, 2, 3, 5};
static const int64_t small_items[] = {10, 11, 12, 13};
static const int64_t small_offsets[] = {0, 3, 3, 4, 4};
static const uint8_t small_mask[] = {0xD};

static void make_small(void) {
  static const uint64_t shape[] = {4};
  static packbuf_text texts[4];
  size_t count;
  packbuf_tensor numbers = array_of(small_numbers, i64(), 1, shape, NULL, 0);
  packbuf_ragged ragged;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = small_items;
  ragged.dtype = i64();
  ragged.form = PACKBUF_FORM_LIST;
  ragged.offset_bits = 64;
  ragged.offsets = small_offsets;
  ragged.items = 4;
  for (unsigned i = 0; i < 4; i++)
    texts[i] = text_of(i == 2 ? NULL : i == 1 ? "" : "t\xC3\xA9xt that does not fit a record");
  begin(&small, 4);
  (void)packbuf_add_tensor(&small.batch, "numbers", &numbers, small_mask, &error);
  (void)packbuf_add_strings(&small.batch, "texts", texts, &error);
  (void)packbuf_add_ragged(&small.batch, "ragged", &ragged, &error);
  (void)packbuf_add_values(&small.batch, "dicts",
                           mv_column("{\"a\" [{\"b\" 1} {\"b\" 2}]} null {\"a\" [{\"b\" 3}]} {\"a\" []}", &count),
                           &error);
  (void)packbuf_add_values(&small.batch, "mixed", mv_column("[b\"x\" 1] [b\"y\"] [] [b\"z\" 3]", &count), &error);
  tap_ok(opens(&small), "a small batch");
}

static void lending(void) {
  counting count = {0, 0};
  packbuf_export what = exporting(&small.selection, PACKBUF_NO_NODE, &count);
  struct ArrowSchema schema;
  struct ArrowArray array, moved;
  int64_t second;
  tap_ok(!packbuf_arrow_schema(&what, &schema, &error) && strcmp(schema.format, "+s") == 0 && schema.n_children == 5,
         "a struct of five fields");
  tap_ok(strcmp(schema.children[0]->format, "l") == 0 && strcmp(schema.children[1]->format, "U") == 0 &&
             strcmp(schema.children[2]->format, "+L") == 0 && strcmp(schema.children[3]->format, "+s") == 0 &&
             strcmp(schema.children[3]->children[0]->format, "+L") == 0 &&
             strcmp(schema.children[3]->children[0]->children[0]->format, "+s") == 0,
         "their formats");
  tap_ok(strcmp(schema.children[0]->name, "numbers") == 0 && strcmp(schema.children[3]->children[0]->name, "a") == 0 &&
             (schema.children[0]->flags & ARROW_FLAG_NULLABLE) && !(schema.children[2]->flags & ARROW_FLAG_NULLABLE),
         "names and flags");
  schema.release(&schema);
  tap_ok(schema.release == NULL && count.taken == count.released, "a schema is released");
  count.taken = count.released = 0;
  tap_ok(!packbuf_arrow_array(&what, &array, &error), "the array (%s)", error.path);
  tap_ok(inside(&small, array.children[0]->buffers[1]) == exchange_lends() &&
             inside(&small, array.children[0]->buffers[0]),
         "numbers and their mask are lent");
  tap_ok(inside(&small, array.children[1]->buffers[1]) == exchange_lends() &&
             inside(&small, array.children[1]->buffers[2]) == exchange_lends(),
         "text is lent");
  tap_ok(inside(&small, array.children[2]->buffers[1]) == exchange_lends() &&
             inside(&small, array.children[2]->children[0]->buffers[1]) == exchange_lends(),
         "ragged numbers are lent");
  moved = *array.children[3];
  array.children[3]->release = NULL;
  array.release(&array);
  tap_ok(count.released < count.taken && moved.release, "a moved child outlives its parent");
  memcpy(&second, (const uint8_t *)moved.children[0]->children[0]->children[0]->buffers[1] + 16, 8);
  tap_ok(moved.length == 4 && second == 3, "and can be read");
  moved.release(&moved);
  tap_ok(count.released == count.taken, "all of %ld structs are released", count.taken);
}

static void streaming(void) {
  counting count = {0, 0};
  const packbuf_export what = exporting(&small.selection, node_of(&small, "ragged"), &count);
  struct ArrowArrayStream stream;
  struct ArrowSchema schema, again;
  struct ArrowArray array, end;
  tap_ok(!packbuf_arrow_stream(&what, &stream, &error) && !stream.get_schema(&stream, &schema) &&
             !stream.get_schema(&stream, &again),
         "a stream, and its schema twice");
  tap_ok(!stream.get_next(&stream, &array) && array.length == 4 && !stream.get_next(&stream, &end) && !end.release,
         "one array, then none");
  tap_ok(stream.get_last_error(&stream) == NULL, "no error");
  stream.release(&stream);
  tap_ok(!exchange_walk(&schema, &array), "the array outlives the stream");
  schema.release(&schema), again.release(&again), array.release(&array);
  tap_ok(count.taken == count.released, "all is released");
}

/* Memory that runs out at each call in turn: a status, nothing held. */
static void without_memory(void) {
  unsigned long at = 0;
  packbuf_status status = PACKBUF_OUT_OF_MEMORY;
  int clean = 1;
  for (; status == PACKBUF_OUT_OF_MEMORY && at < 10000; at++) {
    counting count = {0, 0};
    failing f = failing_at(at, (int)(at & 1));
    const packbuf_allocator allocator = failing_allocator(&f);
    packbuf_export what = exporting(&small.selection, PACKBUF_NO_NODE, &count);
    struct ArrowArray array;
    struct ArrowSchema schema;
    what.allocator = &allocator;
    what.flags = PACKBUF_EXPORT_COPY;
    status = packbuf_arrow_array(&what, &array, &error);
    if (status == PACKBUF_OK) array.release(&array);
    else clean &= array.release == NULL;
    if (packbuf_arrow_schema(&what, &schema, &error) == PACKBUF_OK) schema.release(&schema);
    clean &= count.taken == count.released && (status == PACKBUF_OK || status == PACKBUF_OUT_OF_MEMORY);
  }
  tap_ok(clean && status == PACKBUF_OK && at > 20, "without memory at each of %lu calls", at);
}

/* A copy of the small batch, open, for those who rewrite it. */
static uint8_t *open_copy(packed *p) {
  uint8_t *copy = (uint8_t *)malloc((size_t)small.size);
  *p = small;
  p->data = memcpy(copy, small.data, (size_t)small.size);
  (void)packbuf_open(&p->view, copy, p->size, 0, NULL, &error);
  (void)chooses(p, packbuf_rows_all());
  return copy;
}

static void hostile_views(void) {
  packed p;
  uint8_t *copy = open_copy(&p);
  counting count = {0, 0};
  packbuf_export what;
  packbuf_column column;
  struct ArrowArray array;
  struct ArrowArrayStream stream;
  (void)packbuf_open_column(&p.view, node_of(&p, "texts"), &column, &error);
  what = exporting(&p.selection, node_of(&p, "texts"), &count);
  copy[column.data.bytes - copy + 1] = 0xFF;
  tap_ok(packbuf_arrow_array(&what, &array, &error) == PACKBUF_BAD_UTF8 && strcmp(error.path, "texts") == 0,
         "text that is no UTF-8: %s", line());
  tap_ok(!packbuf_arrow_stream(&what, &stream, &error) && stream.get_next(&stream, &array) &&
             stream.get_next(&stream, &array) && !array.release,
         "a stream of it fails, and does not end when it is asked again");
  tap_ok(stream.get_last_error(&stream) && strstr(stream.get_last_error(&stream), "BAD_UTF8"), "and says why");
  stream.release(&stream);
  what.flags = PACKBUF_EXPORT_VERIFIED;
  tap_ok(packbuf_arrow_array(&what, &array, &error) == PACKBUF_OK, "which is not looked at when it was verified");
  array.release(&array);
  what.flags = 0;
  bytes_store32(copy + (column.offsets.bytes - copy) + 8, 3000000);
  tap_ok(packbuf_arrow_array(&what, &array, &error) == PACKBUF_BAD_OFFSETS && !array.release,
         "offsets beyond the data: %s", line());
  p.view.limits.decoded_bytes = 39; /* its four numbers are 32 bytes, their offsets 40 */
  what.node = node_of(&p, "ragged");
  what.flags = PACKBUF_EXPORT_COPY;
  tap_ok(packbuf_arrow_array(&what, &array, &error) == PACKBUF_OUT_OF_MEMORY && !array.release,
         "a buffer beyond the limit: %s", line());
  what.node = p.view.node_count;
  tap_ok(packbuf_arrow_array(&what, &array, &error) == PACKBUF_NOT_FOUND, "no such node: %s", line());
  tap_ok(count.taken == count.released, "nothing is held");
  free(copy);
}

/* Whoever can write to the memory rewrites the head once the buffer is open. */
static void rewritten_head(void) {
  packed p;
  uint8_t *copy = open_copy(&p);
  counting count = {0, 0};
  packbuf_export what;
  packbuf_node node;
  packbuf_buffer mask;
  struct ArrowArray array;
  (void)packbuf_find(&p.view, 0, "dicts", &node, &error);
  (void)packbuf_get_buffer(&p.view, &node, PACKBUF_ROLE_VALIDITY, 0, &mask, &error);
  bytes_store64(copy + bytes_buffer_at(&p.view, mask.index) + 16, 3);
  what = exporting(&p.selection, node.index, &count);
  tap_ok(packbuf_arrow_array(&what, &array, &error) == PACKBUF_BAD_BUFFER && !array.release,
         "a mask of fewer rows: %s", line());
  tap_ok(count.taken == count.released, "nothing is held");
  free(copy);
}

/* An allocator that writes a number to the packed buffer at one of its calls, and so in the midst of an export. */
typedef struct rewriting {
  unsigned long calls, at;
  uint8_t *where;
  uint64_t number;
} rewriting;

static void *rewriting_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  rewriting *r = (rewriting *)context;
  (void)old_size;
  if (!new_size) return free(memory), NULL;
  if (r->calls++ == r->at) bytes_store64(r->where, r->number);
  return realloc(memory, new_size);
}

/* Whenever the last offset of a column becomes another one, its export fails, or no child is shorter than what its
 * parent wants, or longer than `most`. */
static void rewritten_meanwhile(const char *name, packed *p, const packbuf_buffer *offsets, uint64_t number,
                                int64_t most) {
  counting count = {0, 0};
  packbuf_export what = exporting(&p->selection, 0, &count);
  rewriting r = {0, 0, (uint8_t *)p->data + (offsets->bytes - (uint8_t *)p->data) + 8 * (offsets->count - 1), number};
  const packbuf_allocator allocator = {rewriting_resize, &r};
  const uint64_t before = bytes_load64(r.where);
  struct ArrowSchema schema;
  unsigned refused = 0, good = 0, bad = 0;
  (void)packbuf_arrow_schema(&what, &schema, &error);
  what.allocator = &allocator;
  for (; r.calls >= r.at; r.at++) {
    struct ArrowArray array;
    packbuf_status status;
    r.calls = 0;
    status = packbuf_arrow_array(&what, &array, &error);
    bytes_store64(r.where, before); /* what is lent is the packed buffer's, and not looked at again */
    if (status != PACKBUF_OK) {
      refused++;
    } else {
      const int sound = array.children[0]->length <= most && !exchange_walk(&schema, &array);
      good += (unsigned)sound, bad += (unsigned)!sound;
      array.release(&array);
    }
  }
  schema.release(&schema);
  tap_ok(refused && good && !bad && count.taken == count.released, "%s: refused %u times, given %u times", name,
         refused, good);
}

static void rewritten_offsets(void) {
  const char *const rows = "[m\"image/png:a\" m\"image/gif:b\"] [m\"image/png:c\" m\":d\" m\"a/b:e\"]";
  packed p;
  packbuf_ragged ragged;
  packbuf_column column;
  size_t n;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = small_items;
  ragged.dtype = i64();
  ragged.offset_bits = 64;
  ragged.offsets = small_offsets;
  ragged.items = 4;
  begin(&p, 4);
  (void)packbuf_add_ragged(&p.batch, "ragged", &ragged, &error);
  (void)(opens(&p) && packbuf_open_column(&p.view, 0, &column, &error));
  rewritten_meanwhile("rows that end beyond the data", &p, &column.offsets, 3000000, 4);
  packbuf_arena_free(&p.arena);
  begin(&p, 2);
  (void)packbuf_add_values(&p.batch, "media", mv_column(rows, &n), &error);
  (void)(opens(&p) && packbuf_open_column(&p.view, 0, &column, &error));
  rewritten_meanwhile("media that are fewer than their attributes", &p, &column.item_offsets, 4, 5);
  packbuf_arena_free(&p.arena);
}

/* Only what was chosen can be exported. */
static void not_chosen(void) {
  const char *pattern = "numbers";
  packed p = small;
  counting count = {0, 0};
  struct ArrowArray array;
  packbuf_export what;
  (void)packbuf_select(&p.view, 0, &pattern, 1, packbuf_rows_all(), &p.arena, &p.selection, &error);
  what = exporting(&p.selection, node_of(&p, "texts"), &count);
  tap_ok(packbuf_arrow_array(&what, &array, &error) == PACKBUF_NOT_FOUND && count.taken == 0, "a node that was not chosen: %s", line());
}

/* ---- import ---- */

enum { MOST_MADE = 64 };

/* Arrays by hand: what is in them is the test's. */
typedef struct made {
  struct ArrowSchema schema;
  struct ArrowArray array;
  struct ArrowSchema *schemas[4];
  struct ArrowArray *arrays[4];
  const void *buffers[6];
} made;

static void made_release_schema(struct ArrowSchema *schema) { schema->release = NULL; }
static void made_release_array(struct ArrowArray *array) { array->release = NULL; }

static made *make(const char *format, int64_t length, int64_t offset, int64_t buffers, const void *b0, const void *b1,
                  const void *b2) {
  made *m = (made *)mv_alloc(sizeof *m);
  memset(m, 0, sizeof *m);
  m->schema.format = format;
  m->schema.name = "x";
  m->schema.release = made_release_schema;
  m->schema.children = m->schemas;
  m->array.length = length;
  m->array.offset = offset;
  m->array.null_count = -1;
  m->array.n_buffers = buffers;
  m->array.buffers = m->buffers;
  m->array.children = m->arrays;
  m->array.release = made_release_array;
  m->buffers[0] = b0, m->buffers[1] = b1, m->buffers[2] = b2;
  return m;
}

static made *with(made *parent, made *child) {
  parent->schemas[parent->schema.n_children++] = &child->schema;
  parent->arrays[parent->array.n_children++] = &child->array;
  return parent;
}

static packbuf_status add(packed *p, const made *m, uint64_t rows) {
  const struct ArrowArray *chunk = &m->array;
  begin(p, rows);
  return packbuf_arrow_add(&p->batch, "f", &m->schema, &chunk, 1, &error);
}

/* The column comes in as these values. */
static void takes(const char *name, const made *m, const char *notation) {
  packed p;
  size_t count = 0;
  const packbuf_value *want = mv_column(notation, &count);
  packbuf_value got[MOST_MADE];
  int same = add(&p, m, count) == PACKBUF_OK && opens(&p) &&
             packbuf_verify(&p.view, PACKBUF_LEVEL_FULL, &error) == PACKBUF_OK &&
             packbuf_read_column(&p.view, 0, 0, count, &p.arena, got, &error) == PACKBUF_OK;
  for (size_t i = 0; same && i < count; i++) same = mv_same(&want[i], &got[i]);
  if (!tap_ok(same, "%s", name)) tap_note("%s", line());
  packbuf_arena_free(&p.arena);
}

static void refuses(const char *name, const made *m, packbuf_status status) {
  packed p;
  packbuf_status got = add(&p, m, (uint64_t)(m->array.length > 0 ? m->array.length : 0));
  if (!tap_ok(got == status && error.path[0] == 'f', "%s: %s", name, line())) tap_note("%s", packbuf_status_name(got));
  packbuf_arena_free(&p.arena);
}

static const int32_t offsets32[] = {0, 1, 3, 3, 6, 8};
static const int64_t offsets64[] = {0, 1, 3, 3, 6, 8};
static const uint8_t third_null[] = {0xFB, 0xFF};
static const char letters[] = "abcdefgh";
static const int16_t shorts[] = {1, -2, 3, -4, 5, -6, 7, -8};
static const uint8_t some_bits[] = {0x5A, 0xC3};
static const float floats[] = {0.5f, 1.5f, -2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f, 8.5f};

/* Whoever changes the offsets of lists once they were taken: what is packed is as they were. */
static void changed_offsets(void) {
  int32_t offsets[] = {0, 1, 3, 3, 6, 8};
  const made *m = with(make("+l", 3, 1, 2, NULL, offsets, NULL), make("s", 8, 0, 2, NULL, shorts, NULL));
  packed p;
  const int taken = add(&p, m, 3) == PACKBUF_OK;
  packbuf_value rows[3];
  offsets[2] = 1 << 30;
  tap_ok(taken && opens(&p) && packbuf_read_column(&p.view, 0, 0, 3, &p.arena, rows, &error) == PACKBUF_OK &&
             rows[0].as.list.count == 2 && rows[1].as.list.count == 0 && rows[2].as.list.count == 3,
         "offsets that change after they were taken: %s", line());
  packbuf_arena_free(&p.arena);
}

static void imports(void) {
  static const int32_t days[] = {-1, 0, 20000};
  static const int8_t indexes[] = {1, 0, 1, 3};
  static const uint16_t half[] = {0x3C00, 0xC000};
  static const char *const block = "a text that is longer than twelve bytes";
  static int32_t views[2][4];
  static const int64_t sizes[] = {39};
  static const int32_t counts[] = {1, 20, 10}; /* of pairs, and the sizes of both, as the machine has them */
  char extension[64];
  made *m;
  takes("int16, from an offset", make("s", 3, 2, 2, NULL, shorts, NULL), "3 -4 5");
  takes("int16, nulls, from an offset within a byte", make("s", 3, 1, 2, third_null, shorts, NULL), "-2 null -4");
  takes("bool, from an offset", make("b", 4, 3, 2, NULL, some_bits, NULL), "true true false true");
  takes("float16", make("e", 2, 0, 2, NULL, half, NULL), "1.0 -2.0");
  takes("days", make("tdD", 3, 0, 2, NULL, days, NULL), "-1 0 20000");
  takes("null", make("n", 3, 0, 0, NULL, NULL, NULL), "null null null");
  takes("utf8", make("u", 4, 1, 3, third_null, offsets32, letters), "\"bc\" null \"def\" \"gh\"");
  takes("large_binary", make("Z", 2, 0, 3, NULL, offsets64, letters), "b\"a\" b\"bc\"");
  takes("no bytes at all", make("u", 0, 0, 3, NULL, NULL, NULL), "");
  takes("fixed_size_binary", make("w:3", 2, 0, 2, NULL, letters, NULL), "b\"abc\" b\"def\"");
  takes("list, from offsets on both levels",
        with(make("+l", 3, 1, 2, NULL, offsets32, NULL), make("s", 8, 0, 2, NULL, shorts, NULL)),
        "[-2 3] [] [-4 5 -6]");
  takes("large_list of floats with an offset",
        with(make("+L", 2, 0, 2, NULL, offsets64, NULL), make("f", 6, 2, 2, NULL, floats, NULL)), "[-2.5] [3.5 4.5]");
  takes("a list with a null in it",
        with(make("+l", 2, 1, 2, NULL, offsets32, NULL), make("s", 8, 0, 2, third_null, shorts, NULL)), "[-2 null] []");
  takes("a list of bools", with(make("+l", 2, 0, 2, NULL, offsets32, NULL), make("b", 8, 0, 2, NULL, some_bits, NULL)),
        "[false] [true false]");
  takes("a list of lists",
        with(make("+l", 1, 1, 2, NULL, offsets32, NULL),
             with(make("+l", 3, 0, 2, NULL, offsets32, NULL), make("s", 8, 0, 2, NULL, shorts, NULL))),
        "[[-2 3] []]");
  takes("lists of two", with(make("+w:2", 2, 1, 1, NULL, NULL, NULL), make("s", 8, 1, 2, NULL, shorts, NULL)),
        "a.i16[2](-4 5) a.i16[2](-6 7)");
  takes("lists of two within a list, from offsets on all levels",
        with(make("+l", 1, 1, 2, NULL, offsets32, NULL),
             with(make("+w:2", 3, 1, 1, NULL, NULL, NULL), make("s", 8, 0, 2, NULL, shorts, NULL))),
        "[[5 -6] [7 -8]]");
  m = with(with(make("+s", 2, 1, 1, NULL, NULL, NULL), make("s", 4, 1, 2, NULL, shorts, NULL)),
           make("u", 4, 0, 3, third_null, offsets32, letters));
  m->schemas[1]->name = "y";
  takes("a struct, from offsets on both levels", m, "{\"x\" 3 \"y\" \"bc\"} {\"x\" -4 \"y\" null}");
  m = make("c", 4, 0, 2, NULL, indexes, NULL);
  m->schema.dictionary = &make("u", 0, 0, 3, NULL, NULL, NULL)->schema;
  m->array.dictionary = &make("u", 4, 1, 3, third_null, offsets32, letters)->array;
  takes("a dictionary", m, "null \"bc\" null \"gh\"");
  views[0][0] = 3;
  memcpy(&views[0][1], "abc", 3);
  views[1][0] = 30, views[1][3] = 9;
  m = make("vu", 2, 0, 4, NULL, views, block);
  m->buffers[3] = sizes;
  takes("string views", m, "\"abc\" \"at is longer than twelve bytes\"");
  views[1][3] = 10;
  refuses("a view beyond its block", m, PACKBUF_OUT_OF_RANGE);
  views[1][3] = -1;
  refuses("a view before its block", m, PACKBUF_OUT_OF_RANGE);
  m->buffers[3] = NULL;
  refuses("blocks without their sizes", m, PACKBUF_INVALID_ARGUMENT);
  m->buffers[3] = sizes;
  views[1][2] = 1;
  refuses("a view of no block", m, PACKBUF_OUT_OF_RANGE);
  m = make("u", 1, 3, 3, NULL, offsets32, "   [1]");
  memcpy(extension, counts, 8);
  memcpy(extension + 8, "ARROW:extension:name", 20);
  memcpy(extension + 28, &counts[2], 4);
  memcpy(extension + 32, "arrow.json", 10);
  m->schema.metadata = extension;
  takes("arrow.json", m, "[1]");
}

static void refusals(void) {
  static const int32_t falling[] = {0, 3, 2, 4};
  static const int32_t negative[] = {-1, 3, 4, 4};
  static const int8_t beyond[] = {0, 4};
  made *m, *deep;
  static const char *const formats[] = {"d:10,2", "ttm",  "tDs",           "tiM", "+vl",   "+ud:0", "+m", "+r", "", "x",
                                        "w:",     "w:-1", "w:99999999999", "+w:", "+w:3x", "tsq:",  "ss", "vx", "+"};
  for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
    refuses(formats[i], make(formats[i], 0, 0, 2, NULL, NULL, NULL), PACKBUF_UNSUPPORTED_DTYPE);
  refuses("offsets that descend", make("u", 3, 0, 3, NULL, falling, letters), PACKBUF_BAD_OFFSETS);
  refuses("offsets below 0", make("u", 3, 0, 3, NULL, negative, letters), PACKBUF_BAD_OFFSETS);
  refuses("a list beyond its child",
          with(make("+l", 4, 0, 2, NULL, offsets32, NULL), make("s", 5, 0, 2, NULL, shorts, NULL)),
          PACKBUF_INVALID_ARGUMENT);
  refuses("lists of two beyond their child",
          with(make("+w:2", 2, 1, 1, NULL, NULL, NULL), make("s", 5, 0, 2, NULL, shorts, NULL)),
          PACKBUF_INVALID_ARGUMENT);
  refuses("a struct beyond its child",
          with(make("+s", 2, 1, 1, NULL, NULL, NULL), make("n", 2, 0, 0, NULL, NULL, NULL)), PACKBUF_INVALID_ARGUMENT);
  refuses("a length below 0", make("s", -1, 0, 2, NULL, shorts, NULL), PACKBUF_INVALID_ARGUMENT);
  refuses("an offset below 0", make("s", 1, -1, 2, NULL, shorts, NULL), PACKBUF_INVALID_ARGUMENT);
  refuses("offset and length beyond int64", make("n", 1, INT64_MAX, 0, NULL, NULL, NULL), PACKBUF_INVALID_ARGUMENT);
  refuses("a missing buffer", make("s", 1, 0, 1, NULL, NULL, NULL), PACKBUF_INVALID_ARGUMENT);
  refuses("a NULL buffer", make("s", 1, 0, 2, NULL, NULL, NULL), PACKBUF_INVALID_ARGUMENT);
  refuses("NULL offsets", make("u", 1, 0, 3, NULL, NULL, letters), PACKBUF_INVALID_ARGUMENT);
  refuses("NULL text", make("u", 1, 0, 3, NULL, offsets32, NULL), PACKBUF_INVALID_ARGUMENT);
  refuses("a list without its child", make("+l", 0, 0, 2, NULL, offsets32, NULL), PACKBUF_INVALID_ARGUMENT);
  m = with(make("+l", 0, 0, 2, NULL, offsets32, NULL), make("n", 0, 0, 0, NULL, NULL, NULL));
  m->arrays[0] = NULL;
  refuses("a NULL child", m, PACKBUF_INVALID_ARGUMENT);
  m->schemas[0] = NULL;
  refuses("a NULL child of the schema", m, PACKBUF_INVALID_ARGUMENT);
  m = make("s", 1, 0, 2, NULL, shorts, NULL);
  m->array.null_count = 1;
  refuses("nulls without a bitmap", m, PACKBUF_INVALID_ARGUMENT);
  m->array.null_count = 2;
  refuses("more nulls than elements", m, PACKBUF_INVALID_ARGUMENT);
  m->array.release = NULL;
  refuses("a released array", m, PACKBUF_INVALID_ARGUMENT);
  m = make("c", 2, 0, 2, NULL, beyond, NULL);
  m->schema.dictionary = &make("u", 0, 0, 3, NULL, NULL, NULL)->schema;
  refuses("a dictionary that is not there", m, PACKBUF_INVALID_ARGUMENT);
  m->array.dictionary = &make("u", 4, 0, 3, NULL, offsets32, letters)->array;
  refuses("an index beyond its dictionary", m, PACKBUF_OUT_OF_RANGE);
  m = make("f", 2, 0, 2, NULL, floats, NULL);
  m->schema.dictionary = &make("u", 0, 0, 3, NULL, NULL, NULL)->schema;
  m->array.dictionary = &make("u", 4, 0, 3, NULL, offsets32, letters)->array;
  refuses("a dictionary with indexes that are floats", m, PACKBUF_INVALID_ARGUMENT);
  refuses("times in lists", with(make("+l", 1, 0, 2, NULL, offsets32, NULL), make("tss:", 8, 0, 2, NULL, shorts, NULL)),
          PACKBUF_UNSUPPORTED_DTYPE);
  deep = make("n", 0, 0, 0, NULL, NULL, NULL);
  for (int i = 0; i < 70; i++) deep = with(make("+w:1", 0, 0, 1, NULL, NULL, NULL), deep);
  refuses("nested 70 deep", deep, PACKBUF_DEPTH);
  deep = make("n", 0, 0, 0, NULL, NULL, NULL);
  for (int i = 0; i < 40; i++) deep = with(with(make("+s", 0, 0, 1, NULL, NULL, NULL), deep), deep);
  refuses("two children that are one and the same, 40 deep", deep, PACKBUF_LIMIT);
}

/* A struct in chunks, times with a zone, and what its schemas and metadata say when it goes out again. */
static void chunked(void) {
  static const int64_t times[] = {1, 2, 3};
  made *a = with(with(with(make("+s", 2, 1, 1, NULL, NULL, NULL), make("tsu:Europe/Paris", 3, 0, 2, NULL, times, NULL)),
                      make("+l", 5, 0, 2, third_null, offsets32, NULL)),
                 make("b", 8, 1, 2, NULL, some_bits, NULL));
  made *b = with(with(with(make("+s", 1, 0, 1, NULL, NULL, NULL), make("tsu:Europe/Paris", 3, 1, 2, NULL, times, NULL)),
                      make("+l", 2, 3, 2, NULL, offsets32, NULL)),
                 make("b", 8, 0, 2, NULL, some_bits, NULL));
  const struct ArrowArray *chunks[2];
  counting count = {0, 0};
  packbuf_export what;
  struct ArrowSchema schema;
  packbuf_value row;
  packed p;
  size_t n;
  a->schemas[0]->name = "t", a->schemas[1]->name = "l", a->schemas[2]->name = "b";
  a->schemas[1]->children[0] = &make("s", 0, 0, 2, NULL, NULL, NULL)->schema, a->schemas[1]->n_children = 1;
  a->arrays[1]->children[0] = &make("s", 8, 0, 2, NULL, shorts, NULL)->array, a->arrays[1]->n_children = 1;
  b->arrays[1]->children[0] = &make("s", 8, 0, 2, NULL, shorts, NULL)->array, b->arrays[1]->n_children = 1;
  chunks[0] = &a->array, chunks[1] = &b->array;
  begin(&p, 3);
  tap_ok(!packbuf_arrow_import(&p.batch, &a->schema, chunks, 2, &error) && opens(&p) && p.view.field_count == 3,
         "two chunks: %s", line());
  (void)packbuf_read_row(&p.view, 0, &p.arena, &row, &error);
  tap_ok(mv_same(mv_column("{\"t\" 2 \"l\" [-2 3] \"b\" false}", &n), &row), "row 0");
  (void)packbuf_read_row(&p.view, 1, &p.arena, &row, &error);
  tap_ok(mv_same(mv_column("{\"t\" 3 \"l\" null \"b\" true}", &n), &row), "row 1");
  (void)packbuf_read_row(&p.view, 2, &p.arena, &row, &error);
  tap_ok(mv_same(mv_column("{\"t\" 2 \"l\" [-4 5 -6] \"b\" false}", &n), &row), "row 2");
  what = exporting(&p.selection, node_of(&p, "t"), &count);
  memset(&schema, 0, sizeof schema);
  tap_ok(!packbuf_arrow_schema(&what, &schema, &error), "a schema goes out again: %s", line());
  tap_ok(strcmp(schema.format, "tsu:Europe/Paris") == 0, "and so does the zone: %s", schema.format);
  schema.release(&schema);
  packbuf_arena_free(&p.arena);
  begin(&p, 4);
  tap_ok(packbuf_arrow_import(&p.batch, &a->schema, chunks, 2, &error) == PACKBUF_ROW_COUNT,
         "another number of rows: %s", line());
  packbuf_arena_free(&p.arena);
}

/* Metadata as Arrow has them: `words` are keys and texts by turns, up to NULL; a word "-" is a length of -1. */
static const char *pairs_of(const char *const *words) {
  char *pairs = (char *)mv_alloc(512), *at = pairs + 4;
  int32_t count = 0;
  for (; words[count]; count++) {
    const int32_t size = strcmp(words[count], "-") == 0 ? -1 : (int32_t)strlen(words[count]);
    memcpy(at, &size, 4);
    if (size > 0) memcpy(at + 4, words[count], (size_t)size);
    at += 4 + (size > 0 ? size : 0);
  }
  count /= 2;
  memcpy(pairs, &count, 4);
  return pairs;
}

/* An array with metadata: two keys and texts, the second may be NULL. */
static made *told(made *m, const char *key, const char *text, const char *key2, const char *text2) {
  const char *words[5] = {NULL};
  words[0] = key, words[1] = text, words[2] = key2, words[3] = text2;
  m->schema.metadata = pairs_of(words);
  return m;
}

static made *of_four(const char *shape) {
  return told(with(make("+w:4", 2, 0, 1, NULL, NULL, NULL), make("s", 8, 0, 2, NULL, shorts, NULL)), "ARROW:extension:name",
              "arrow.fixed_shape_tensor", "ARROW:extension:metadata", shape);
}

/* A struct of elements 3 to 6 of `shorts` and a shape. */
static made *shaped(const char *codec, const int64_t *shape, const uint8_t *mask) {
  static const int32_t two[] = {0, 2};
  made *m = with(with(make("+s", 1, 0, 1, NULL, NULL, NULL), with(make("+l", 1, 3, 2, NULL, offsets32, NULL), make("s", 8, 0, 2, mask, shorts, NULL))),
                 with(make("+l", 1, 0, 2, NULL, two, NULL), make("l", 2, 0, 2, NULL, shape, NULL)));
  return told(m, "packbuf.codec", codec, NULL, NULL);
}

static made *complexes(const char *format, int64_t length, const uint8_t *mask) {
  return told(with(make(format, length, 1, 1, mask, NULL, NULL), make("f", 9, 0, 2, NULL, floats, NULL)), "packbuf.dtype", "complex64", NULL, NULL);
}

/* What metadata say of a type is believed as far as the arrays are so. */
static void told_types(void) {
  static const int64_t row[] = {1, 3}, square[] = {2, 2}, one[] = {1};
  static const uint8_t fourth_null[] = {0xF7};
  packed p;
  made *m;
  takes("a tensor's shape", of_four("{\"shape\":[2,2]}"), "a.i16[2 2](1 -2 3 -4) a.i16[2 2](5 -6 7 -8)");
  takes("a permuted one stays flat", of_four("{\"shape\":[2,2],\"permutation\":[1,0]}"), "a.i16[4](1 -2 3 -4) a.i16[4](5 -6 7 -8)");
  takes("so does one of another size", of_four("{\"shape\":[2,3]}"), "a.i16[4](1 -2 3 -4) a.i16[4](5 -6 7 -8)");
  takes("a dtype of another size", told(make("C", 2, 0, 2, NULL, letters, NULL), "packbuf.dtype", "bfloat16", NULL, NULL), "97 98");
  takes("complex numbers within a list, from offsets", with(make("+l", 1, 1, 2, NULL, offsets32, NULL), complexes("+w:2", 3, third_null)),
        "[null s.c64(6.5 7.5)]");
  takes("three floats are no complex number", complexes("+w:3", 2, NULL), "a.f32[3](3.5 4.5 5.5) a.f32[3](6.5 7.5 8.5)");
  takes("a ragged tensor", shaped("ragged_tensor", row, NULL), "t.i16[1 3](-4 5 -6)");
  takes("a ragged array", shaped("typed_ragged", row, NULL), "a.i16[1 3](-4 5 -6)");
  refuses("a shape of more elements", shaped("ragged_tensor", square, NULL), PACKBUF_BAD_SHAPE);
  refuses("a tensor with a null", shaped("ragged_tensor", row, fourth_null), PACKBUF_BAD_SHAPE);
  m = with(with(with(make("+s", 1, 0, 1, NULL, NULL, NULL), make("s", 1, 0, 2, NULL, shorts, NULL)), make("u", 1, 0, 3, NULL, offsets32, letters)), make("l", 1, 0, 2, NULL, one, NULL));
  m->schemas[0]->name = "0", m->schemas[1]->name = "999999999", m->schemas[2]->name = "length";
  takes("items by place, one far beyond the length", told(m, "packbuf.codec", "list", NULL, NULL), "[1]");
  begin(&p, 0);
  m = make("d:1,2", 0, 0, 2, NULL, NULL, NULL);
  tap_ok(packbuf_arrow_add(&p.batch, "a[0].b", &m->schema, NULL, 0, &error) && strcmp(error.path, "a\\[0]\\.b") == 0, "a path is escaped: %s", line());
  packbuf_arena_free(&p.arena);
}

static int has_pair(const packed *p, const char *path, const char *key, const char *text) {
  for (uint32_t i = 0; i < p->view.metadata_count; i++) {
    packbuf_metadata pair;
    char where[64] = "";
    if (packbuf_get_metadata(&p->view, i, &pair, &error)) return 0;
    if (pair.node != PACKBUF_NO_NODE) packbuf_node_path(&p->view, pair.node, where, sizeof where);
    if (strcmp(where, path) == 0 && pair.key.size == strlen(key) && memcmp(pair.key.data, key, pair.key.size) == 0 &&
        pair.text.size == strlen(text) && memcmp(pair.text.data, text, pair.text.size) == 0)
      return 1;
  }
  return 0;
}

/* Metadata of schema and fields come in, and go out as they came. */
static void metadata(void) {
  static const int64_t numbers[] = {1, 2, 3};
  static const char *const whole[] = {"by", "me", "ARROW:schema", "no", "packbuf.container", "no", "by", "you", NULL};
  static const char *const field[] = {"unit", "tokens", "", "", NULL}, *const inner[] = {"deep", "yes", NULL};
  static const char *const out[] = {"by", "me", NULL};
  static const char *const broken[][4] = {{"-", "x", NULL, NULL}, {"k", "-", NULL, NULL}, {"k", "\xff", NULL, NULL}};
  const packbuf_status statuses[] = {PACKBUF_INVALID_ARGUMENT, PACKBUF_INVALID_ARGUMENT, PACKBUF_BAD_UTF8};
  made *s = with(make("+s", 1, 0, 1, NULL, NULL, NULL), make("l", 1, 0, 2, NULL, numbers, NULL));
  made *gone = with(make("+s", 1, 0, 1, NULL, NULL, NULL), make("tsu:UTC", 1, 0, 2, NULL, numbers, NULL));
  made *a = with(with(with(make("+s", 1, 0, 1, NULL, NULL, NULL), make("l", 1, 0, 2, NULL, numbers, NULL)), s), gone);
  static const uint8_t none[] = {0};
  const struct ArrowArray *chunk = &a->array;
  counting count = {0, 0};
  packbuf_export what;
  struct ArrowSchema schema;
  packed p;
  a->schemas[0]->name = "x", a->schemas[1]->name = "s", a->schemas[2]->name = "gone";
  s->schemas[0]->name = "y", gone->schemas[0]->name = "t";
  gone->array.buffers[0] = none; /* the struct is null in all rows: there is no gone.t */
  gone->array.null_count = 1;
  a->schema.metadata = pairs_of(whole);
  a->schemas[0]->metadata = pairs_of(field);
  s->schemas[0]->metadata = gone->schemas[0]->metadata = pairs_of(inner);
  begin(&p, 1);
  tap_ok(!packbuf_arrow_import(&p.batch, &a->schema, &chunk, 1, &error) &&
             !packbuf_add_metadata(&p.batch, "x", "unit", "words", &error) && opens(&p),
         "with metadata: %s", line());
  tap_ok(p.view.metadata_count == 4 && has_pair(&p, "", "by", "me") && has_pair(&p, "x", "unit", "words") &&
             has_pair(&p, "x", "", "") && has_pair(&p, "s.y", "deep", "yes"),
         "of schema, fields and fields within; what is added otherwise wins; of what is not there none");
  what = exporting(&p.selection, PACKBUF_NO_NODE, &count);
  memset(&schema, 0, sizeof schema);
  tap_ok(!packbuf_arrow_schema(&what, &schema, &error) && memcmp(schema.metadata, pairs_of(out), 16) == 0 &&
             memcmp(schema.children[1]->children[0]->metadata, s->schemas[0]->metadata, 19) == 0,
         "and go out again: %s", line());
  schema.release(&schema);
  packbuf_arena_free(&p.arena);
  for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
    for (int of_field = 0; of_field < 2; of_field++) {
      a->schema.metadata = of_field ? NULL : pairs_of(broken[i]);
      a->schemas[0]->metadata = of_field ? pairs_of(broken[i]) : NULL;
      begin(&p, 1);
      tap_ok(packbuf_arrow_import(&p.batch, &a->schema, &chunk, 1, &error) == statuses[i] &&
                 strcmp(error.path, of_field ? "x" : "") == 0,
             "broken metadata %d: %s", (int)i, line());
      packbuf_arena_free(&p.arena);
    }
}

int main(void) {
  make_small();
  lending();
  streaming();
  without_memory();
  hostile_views();
  rewritten_head();
  rewritten_offsets();
  not_chosen();
  imports();
  changed_offsets();
  refusals();
  chunked();
  metadata();
  told_types();
  of_complexes();
  of_everything();
  vectors();
  packbuf_arena_free(&small.arena);
  mv_free();
  return tap_plan_done();
}
