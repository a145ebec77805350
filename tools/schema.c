/* tools/schema.c: the --schema file of `packbuf pack`: what the user asks for at a path.
 * May use: packbuf.h, JSON files, messages. Must not know: how a batch is built. */
#include "tool.h"
#include "schema.h"

static const char *arena_string(const packbuf_value *value, packbuf_arena *arena) {
  char *copy;
  if (value->kind != PACKBUF_STRING || memchr(value->as.text.data, 0, value->as.text.size)) return NULL;
  copy = (char *)must_arena(arena, value->as.text.size + 1, 1);
  memcpy(copy, value->as.text.data, value->as.text.size);
  copy[value->as.text.size] = 0;
  return copy;
}

static int is_key(const packbuf_value *key, const char *word) {
  return key->as.text.size == strlen(word) && memcmp(key->as.text.data, word, key->as.text.size) == 0;
}

static void read_flag(const char *file, const char *path, const packbuf_entry *entry, const char *word, int *flag) {
  if (entry->value.kind != PACKBUF_BOOL) fail(file, "%s: %s is true or false", path, word);
  *flag = entry->value.as.boolean;
}

/* One key of one path. */
static void read_wish(const char *file, const packbuf_entry *entry, wish *to, packbuf_arena *arena) {
  const char *word = entry->value.kind == PACKBUF_STRING ? arena_string(&entry->value, arena) : NULL,
             *path = to->schema.path;
  int flag = 0;
  if (is_key(&entry->key, "codec")) {
    if (!word || !packbuf_codec_parse(word, &to->schema.codec))
      fail(file, "%s: there is no codec %s", path, word ? word : "of that type");
  } else if (is_key(&entry->key, "dtype")) {
    if (!word || !packbuf_dtype_parse(word, &to->schema.dtype))
      fail(file, "%s: there is no dtype %s", path, word ? word : "of that type");
  } else if (is_key(&entry->key, "view")) {
    if (!word || !packbuf_dtype_parse(word, &to->view))
      fail(file, "%s: there is no dtype %s", path, word ? word : "of that type");
  } else if (is_key(&entry->key, "timestamp")) {
    if (!word || !npy_unit(word, strlen(word))) fail(file, "%s: timestamp is D, s, ms, us or ns", path);
    to->schema.logical_type = 1;
    to->schema.parameter = word;
  } else if (is_key(&entry->key, "keep_plain")) {
    read_flag(file, path, entry, "keep_plain", &flag);
    if (flag) to->schema.flags |= PACKBUF_KEEP_PLAIN;
  } else if (is_key(&entry->key, "packing")) {
    packbuf_packing packing;
    if (!word || !packing_parse(word, &packing))
      fail(file, "%s: packing is auto, none, fastest, balanced or smallest", path);
    to->schema.packing = (uint8_t)packing;
  } else if (is_key(&entry->key, "not_nullable")) {
    read_flag(file, path, entry, "not_nullable", &flag);
    if (flag) to->schema.flags |= PACKBUF_REFUSE_NULL;
  } else if (is_key(&entry->key, "value")) {
    read_flag(file, path, entry, "value", &flag);
    to->schema.batch_value = (uint8_t)flag;
  } else {
    fail(file, "%s: unknown key %.*s (codec, dtype, keep_plain, not_nullable, packing, timestamp, value, view)", path,
         (int)entry->key.as.text.size, entry->key.as.text.data);
  }
}

wish *wishes_add(wishes *list, const char *path) {
  list->items = (wish *)must_resize(list->items, (list->count + 1) * sizeof *list->items);
  memset(&list->items[list->count], 0, sizeof *list->items);
  list->items[list->count].schema.path = path;
  return &list->items[list->count++];
}

wish *wishes_find(const wishes *list, const char *path, int batch_value) {
  size_t i;
  for (i = 0; i < list->count; i++)
    if (strcmp(list->items[i].schema.path, path) == 0 && list->items[i].schema.batch_value == batch_value)
      return &list->items[i];
  return NULL;
}

void schema_read(const source *from, wishes *list, packbuf_arena *arena) {
  tag_context context;
  packbuf_value all;
  size_t i, k;
  memset(&context, 0, sizeof context);
  context.arena = arena;
  context.no_tags = 1;
  json_read(from, &context, &all);
  if (all.kind != PACKBUF_DICT) fail(from->name, "a schema is a JSON object: {\"path\": {\"codec\": ...}}");
  for (i = 0; i < all.as.dict.count; i++) {
    const packbuf_entry *entry = &all.as.dict.entries[i];
    const char *path = arena_string(&entry->key, arena);
    wish *to;
    if (!path) fail(from->name, "a path has a NUL in it");
    if (entry->value.kind != PACKBUF_DICT) fail(from->name, "%s: must be a JSON object", path);
    to = wishes_add(list, path);
    for (k = 0; k < entry->value.as.dict.count; k++) read_wish(from->name, &entry->value.as.dict.entries[k], to, arena);
    if (to->schema.flags & PACKBUF_KEEP_PLAIN && to->schema.packing > PACKBUF_PACKING_NONE)
      fail(from->name, "%s: keep_plain and packing: a column is kept as it is, or packed; take one of them away", path);
  }
}
