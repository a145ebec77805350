/* tools/table.h: lines of columns for people. The first line is the heading.
 * May use: tool.h. Must not know: what the cells say. */
#ifndef PACKBUF_TOOL_TABLE_H
#define PACKBUF_TOOL_TABLE_H
#include "tool.h"

typedef struct table {
  strings cells;
  size_t columns; /* at most 16 */
  unsigned right; /* bit k: column k is set flush right */
} table;

void table_cell(table *to, const char *data, size_t size);
void table_puts(table *to, const char *string);
void table_number(table *to, uint64_t number);
void table_print(table *from, output *out); /* and frees it */

#endif
