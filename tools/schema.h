/* tools/schema.h: what the user asks for at a path of a batch.
 * May use: tool.h. Must not know: how a batch is built. */
#ifndef PACKBUF_TOOL_SCHEMA_H
#define PACKBUF_TOOL_SCHEMA_H
#include "tool.h"

typedef struct wish {
  packbuf_schema schema;
  packbuf_dtype view; /* bits 0: none. The bits of an array input are taken as this dtype of the same size */
  int used;           /* of view: an array was found */
} wish;

typedef struct wishes {
  wish *items;
  size_t count;
} wishes;

wish *wishes_add(wishes *list, const char *path);
wish *wishes_find(const wishes *list, const char *path, int batch_value);
void schema_read(const source *from, wishes *list, packbuf_arena *arena);

#endif
