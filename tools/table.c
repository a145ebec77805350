/* tools/table.c: lines of columns for people: as wide as the widest cell, the last column free.
 * May use: memory, messages. Must not know: what the cells say. */
#include "table.h"

enum { WIDEST = 64 }; /* longer cells push their line to the right */

void table_cell(table *to, const char *data, size_t size) {
  size_t capacity = size * 4 + 16;
  char *cell = (char *)must_alloc(capacity);
  show_text(data, size, cell, capacity);
  strings_add(&to->cells, cell);
}

void table_puts(table *to, const char *string) { table_cell(to, string, strlen(string)); }

void table_number(table *to, uint64_t number) {
  char digits[24];
  snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
  table_puts(to, digits);
}

/* Characters, as a terminal shows most of them: bytes that start one. */
static size_t width_of(const char *string) {
  size_t n = 0;
  for (; *string; string++) n += ((unsigned char)*string & 0xc0) != 0x80;
  return n;
}

void table_print(table *from, output *out) {
  size_t i, k, rows = from->cells.count / from->columns, widths[16] = {0};
  int colour = out->fd == 1 && colour_on(1);
  for (i = 0; i < rows * from->columns; i++)
    if (width_of(from->cells.items[i]) > widths[i % from->columns])
      widths[i % from->columns] = width_of(from->cells.items[i]);
  for (k = 0; k < from->columns; k++)
    if (widths[k] > WIDEST) widths[k] = WIDEST;
  for (i = 0; i < rows; i++) {
    size_t trail = 0;
    if (colour && i == 0) text_puts(&out->buffer, "\033[1m");
    for (k = 0; k < from->columns; k++) {
      const char *cell = from->cells.items[i * from->columns + k];
      size_t width = width_of(cell), pad = widths[k] > width ? widths[k] - width : 0;
      int right = (int)(from->right >> k & 1);
      if (k) trail += 2;
      if (right) trail += pad;
      if (*cell) {
        for (; trail; trail--) text_puts(&out->buffer, " ");
        text_puts(&out->buffer, cell);
      }
      if (!right) trail += pad;
    }
    text_puts(&out->buffer, colour && i == 0 ? "\033[0m\n" : "\n");
    output_text(out);
  }
  for (i = 0; i < from->cells.count; i++) {
    union {
      const char *in;
      char *out;
    } cell;
    cell.in = from->cells.items[i];
    free(cell.out);
  }
  free(from->cells.items);
}
