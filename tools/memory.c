/* tools/memory.c: memory that is there or ends the program, and texts that grow.
 * May use: messages. Must not know: what is kept. */
#include "tool.h"

#include <stdarg.h>

void *must_alloc(size_t size) { return must_resize(NULL, size); }

void *must_resize(void *memory, size_t size) {
  void *result = realloc(memory, size ? size : 1);
  if (!result) fail_memory();
  return result;
}

void *must_arena(packbuf_arena *arena, size_t size, size_t alignment) {
  void *result = packbuf_arena_alloc(arena, size, alignment);
  if (!result) fail_memory();
  return result;
}

char *text_room(text *to, size_t size) {
  if (size > SIZE_MAX / 2 - to->size) fail_memory();
  if (to->capacity - to->size < size || !to->data) {
    size_t capacity = to->capacity ? to->capacity : 256;
    while (capacity - to->size < size) capacity *= 2;
    to->data = (char *)must_resize(to->data, capacity);
    to->capacity = capacity;
  }
  return to->data + to->size;
}

void text_add(text *to, const char *data, size_t size) {
  char *room = text_room(to, size);
  if (size) memcpy(room, data, size);
  to->size += size;
}

void text_puts(text *to, const char *string) { text_add(to, string, strlen(string)); }

void text_printf(text *to, const char *format, ...) {
  va_list arguments;
  char *room = text_room(to, 128);
  int size;
  va_start(arguments, format);
  size = vsnprintf(room, to->capacity - to->size, format, arguments);
  va_end(arguments);
  if (size < 0) fail_memory();
  if ((size_t)size >= to->capacity - to->size) {
    room = text_room(to, (size_t)size + 1);
    va_start(arguments, format);
    vsnprintf(room, (size_t)size + 1, format, arguments);
    va_end(arguments);
  }
  to->size += (size_t)size;
}

void text_free(text *to) {
  free(to->data);
  memset(to, 0, sizeof *to);
}
