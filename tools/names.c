/* tools/names.c: names of fields as paths and as file names, words for codecs and dtypes, and a set of names.
 * May use: packbuf.h, memory, messages. Must not know: what is done with a name. */
#include "tool.h"

#include <stdint.h>

char *escape_path(const char *name, size_t size) {
  text out = {NULL, 0, 0};
  size_t i;
  for (i = 0; i < size; i++) {
    if (name[i] == '\\' || name[i] == '.' || name[i] == '[') text_add(&out, "\\", 1);
    text_add(&out, name + i, 1);
  }
  text_add(&out, "", 1);
  return out.data;
}

char *safe_file_name(const char *name, size_t size) {
  text out = {NULL, 0, 0};
  size_t i;
  if (!size) text_puts(&out, "%");
  for (i = 0; i < size; i++) {
    unsigned char c = (unsigned char)name[i];
    if (c < 0x20 || c == 0x7f || c == '/' || c == '\\' || c == '%' || c == ':' || (c == '.' && i == 0))
      text_printf(&out, "%%%02X", (unsigned)c);
    else text_add(&out, name + i, 1);
  }
  text_add(&out, "", 1);
  return out.data;
}

int utf8_valid(const char *data, size_t size) {
  const unsigned char *p = (const unsigned char *)data, *end = p + size;
  while (p < end) {
    unsigned long c = *p;
    int more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : -1, i;
    if (more < 0 || end - p <= more) return 0;
    if (more) c &= 0x3fu >> more;
    for (i = 1; i <= more; i++) {
      if ((p[i] & 0xc0) != 0x80) return 0;
      c = c << 6 | (p[i] & 0x3fu);
    }
    if ((more == 2 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (more == 3 && (c < 0x10000 || c > 0x10ffff)))
      return 0;
    p += more + 1;
  }
  return 1;
}

char *node_path(const packbuf_view *view, uint32_t index) {
  size_t size = packbuf_node_path(view, index, NULL, 0);
  char *path = (char *)must_alloc(size + 1);
  packbuf_node_path(view, index, path, size + 1);
  return path;
}

void find_node(const packbuf_view *view, const char *file, unsigned scope, const char *path, packbuf_node *node) {
  packbuf_error error;
  packbuf_status status = packbuf_find(view, scope, path, node, &error);
  if (status == PACKBUF_NOT_FOUND)
    fail(file, "no such %s: %s%s", scope ? "batch value" : "field", path,
         packbuf_find(view, !scope, path, node, NULL) ? ""
         : scope                                      ? " (there is a field of this name)"
                                                      : " (there is a batch value of this name)");
  if (status) fail_status(file, &error);
}

const char *node_word(const packbuf_node *node) {
  static char unknown[16];
  const char *name;
  if (node->kind == PACKBUF_NODE_DICT) return "dict";
  if (node->kind == PACKBUF_NODE_LIST) return "list";
  name = packbuf_codec_name((packbuf_codec)node->codec);
  if (name) return name;
  snprintf(unknown, sizeof unknown, "codec %u", (unsigned)node->codec);
  return unknown;
}

void dtype_word(packbuf_dtype dtype, char *to, size_t size) {
  const char *name = packbuf_dtype_name(dtype);
  if (name) snprintf(to, size, "%s", name);
  else if (!dtype.bits && !dtype.code) snprintf(to, size, "%s", "");
  else snprintf(to, size, "dtype %u/%u/%u", (unsigned)dtype.code, (unsigned)dtype.bits, (unsigned)dtype.lanes);
}

int unreadable(packbuf_status status) {
  return status == PACKBUF_UNSUPPORTED_CODEC || status == PACKBUF_UNSUPPORTED_PACKING ||
         status == PACKBUF_UNSUPPORTED_DTYPE || status == PACKBUF_UNSUPPORTED_ROLE;
}

/* ---- the set: open addressing, at most half full ---- */

struct name_slot {
  const char *name, *file; /* name NULL: free */
  size_t size;
};

static size_t find_slot(const struct name_slot *slots, size_t capacity, const char *name, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u ^ (uint64_t)(uintptr_t)slots;
  size_t i;
  for (i = 0; i < size; i++) hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3u;
  hash ^= hash >> 29;
  for (i = (size_t)hash & (capacity - 1); slots[i].name; i = (i + 1) & (capacity - 1))
    if (slots[i].size == size && memcmp(slots[i].name, name, size) == 0) break;
  return i;
}

static void grow(name_set *set) {
  size_t capacity = set->capacity ? set->capacity * 2 : 64, i;
  struct name_slot *slots = (struct name_slot *)must_alloc(capacity * sizeof *slots);
  memset(slots, 0, capacity * sizeof *slots);
  for (i = 0; i < set->capacity; i++)
    if (set->slots[i].name) slots[find_slot(slots, capacity, set->slots[i].name, set->slots[i].size)] = set->slots[i];
  free(set->slots);
  set->slots = slots;
  set->capacity = capacity;
}

const char *name_set_add(name_set *set, const char *name, size_t size, const char *file) {
  struct name_slot *slot;
  if (set->count * 2 >= set->capacity) grow(set);
  slot = &set->slots[find_slot(set->slots, set->capacity, name, size)];
  if (slot->name) return slot->file;
  slot->name = name;
  slot->size = size;
  slot->file = file;
  set->count++;
  return NULL;
}

const char *name_set_find(const name_set *set, const char *name, size_t size) {
  if (!set->capacity) return NULL;
  return set->slots[find_slot(set->slots, set->capacity, name, size)].file;
}

void name_set_free(name_set *set) {
  free(set->slots);
  memset(set, 0, sizeof *set);
}
