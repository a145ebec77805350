/* Packing and reading in fixed memory: no malloc anywhere. The closed-form bound sizes the destination before any row
 * exists. */
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>

enum { ROWS = 64 };

static unsigned char scratch[64 * 1024];                                            /* what building a batch needs */
static unsigned char packed[PACKBUF_BOUND(2, 0, ROWS, 16, ROWS * (8 + 4))];         /* 2 dense fields */
static int64_t steps[ROWS];
static float losses[ROWS];

static int fail(const packbuf_error *error) {
  char line[512];
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

int main(void) {
  uint64_t shape[1] = {ROWS}, size, rows;
  packbuf_tensor step = {steps, {PACKBUF_DTYPE_INT, 64, 1}, 1, PACKBUF_FORM_NATURAL, shape, NULL, NULL};
  packbuf_tensor loss = {losses, {PACKBUF_DTYPE_FLOAT, 32, 1}, 1, PACKBUF_FORM_NATURAL, shape, NULL, NULL};
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_error error;
  packbuf_view view;
  packbuf_node node;
  packbuf_buffer buffer;
  float back[ROWS];

  for (int i = 0; i < ROWS; i++) {
    steps[i] = i * i;
    losses[i] = 1.0f / (float)(i + 1);
  }
  packbuf_arena_init_fixed(&arena, scratch, sizeof scratch);
  if (packbuf_batch_init(&batch, ROWS, &arena, NULL, &error) ||
      packbuf_add_tensor(&batch, "step", &step, NULL, &error) ||
      packbuf_add_tensor(&batch, "loss", &loss, NULL, &error) ||
      packbuf_write(&batch, packed, sizeof packed, &size, &error))
    return fail(&error);
  printf("%llu bytes used of %llu\n", (unsigned long long)size, (unsigned long long)sizeof packed);

  if (packbuf_open(&view, packed, size, 0, NULL, &error) || packbuf_find(&view, 0, "loss", &node, &error) ||
      packbuf_get_buffer(&view, &node, PACKBUF_ROLE_DATA, 0, &buffer, &error) ||
      packbuf_copy_elements(&view, &buffer, 0, ROWS, back, sizeof back, &error))
    return fail(&error);
  rows = view.rows;
  printf("%llu losses, the last is %g\n", (unsigned long long)rows, (double)back[ROWS - 1]);
  return back[ROWS - 1] == losses[ROWS - 1] ? 0 : 1;
}
