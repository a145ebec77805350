/* A stream of fragments: packed buffers one after the other through a pipe. The writer sends each as a list of segments
 * (writev: its arrays are not copied first); the reader takes 64 bytes, asks how long the buffer is, and reads the
 * rest. POSIX. */
#define _DEFAULT_SOURCE
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 1000, EACH = 256, WIDTH = 512, AT_ONCE = 64 };

static int fail(const packbuf_error *error) {
  char line[512];
  packbuf_error_format(error, line, sizeof line);
  fprintf(stderr, "%s\n", line);
  return 1;
}

/* All of the segments, AT_ONCE to a call (IOV_MAX is at least 16, on Linux 1024), whatever a call takes. */
static int write_segments(int to, const packbuf_segment *segments, uint64_t count) {
  uint64_t first = 0, done = 0; /* bytes of the first that are written */
  while (first < count) {
    struct iovec list[AT_ONCE];
    ssize_t wrote;
    int n;
    for (n = 0; n < AT_ONCE && first + (uint64_t)n < count; n++) {
      const packbuf_segment *segment = &segments[first + (uint64_t)n];
      list[n].iov_base = (void *)((uintptr_t)segment->bytes + (n ? 0 : done));
      list[n].iov_len = (size_t)(segment->size - (n ? 0 : done));
    }
    wrote = writev(to, list, n);
    if (wrote <= 0) return 0;
    for (done += (uint64_t)wrote; first < count && done >= segments[first].size; first++) done -= segments[first].size;
  }
  return 1;
}

/* Rows `first` to `first + rows` as one packed buffer. */
static int send_rows(int to, const int64_t *tokens, uint64_t first, uint64_t rows, packbuf_error *error) {
  uint64_t shape[2] = {0, WIDTH};
  packbuf_tensor tensor = {
      tokens + first * WIDTH, {PACKBUF_DTYPE_INT, 64, 1}, 2, PACKBUF_FORM_TENSOR, shape, NULL, NULL};
  packbuf_scatter scatter = {0, 0, 0, 0};
  packbuf_segment *segments;
  packbuf_arena arena;
  packbuf_batch batch;
  void *staging;
  int sent = 0;
  shape[0] = rows;
  packbuf_arena_init(&arena, NULL);
  if (!packbuf_batch_init(&batch, rows, &arena, NULL, error) &&
      !packbuf_add_tensor(&batch, "input_ids", &tensor, NULL, error) &&
      !packbuf_scatter_measure(&batch, &scatter, error)) {
    segments = (packbuf_segment *)packbuf_arena_alloc(&arena, (size_t)scatter.count * sizeof *segments, 8);
    staging = packbuf_arena_alloc(&arena, (size_t)scatter.staging, 64);
    sent = segments && staging && !packbuf_scatter_list(&batch, &scatter, segments, staging, error) &&
           write_segments(to, segments, scatter.count);
    printf("sent rows %u to %u: %u segments, %u bytes of them copied\n", (unsigned)first, (unsigned)(first + rows - 1),
           (unsigned)scatter.count, (unsigned)scatter.staging);
  }
  packbuf_arena_free(&arena);
  return sent;
}

static int writer(int to) {
  static int64_t tokens[ROWS][WIDTH];
  packbuf_error error = {PACKBUF_INVALID_ARGUMENT, PACKBUF_RULE_NONE, "the pipe is closed", PACKBUF_NOWHERE,
                         PACKBUF_NOWHERE,          PACKBUF_NOWHERE,   PACKBUF_NOWHERE,      "", "", ""};
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < WIDTH; j++) tokens[i][j] = i * 7919 + j * j;
  for (uint64_t first = 0; first < ROWS; first += EACH)
    if (!send_rows(to, tokens[0], first, ROWS - first < EACH ? ROWS - first : EACH, &error)) return fail(&error);
  return 0;
}

/* Reads exactly `size` bytes: 1, 0 at the end of the stream, -1 when it ends within them. */
static int read_exactly(int from, uint8_t *to, size_t size) {
  size_t got = 0;
  while (got < size) {
    ssize_t n = read(from, to + got, size - got);
    if (n <= 0) return got || n < 0 ? -1 : 0;
    got += (size_t)n;
  }
  return 1;
}

/* The fragments one after the other: no more than one is held. */
static int reader(int from) {
  packbuf_error error = {PACKBUF_TRUNCATED,
                         PACKBUF_RULE_NONE,
                         "the stream ends inside a fragment",
                         PACKBUF_NOWHERE,
                         PACKBUF_NOWHERE,
                         PACKBUF_NOWHERE,
                         PACKBUF_NOWHERE,
                         "", "", ""};
  uint64_t rows = 0, fragments = 0, head_and_index, total;
  uint8_t start[64];
  int more;
  while ((more = read_exactly(from, start, sizeof start)) == 1) {
    packbuf_view view;
    uint8_t *buffer;
    if (packbuf_peek(start, sizeof start, &head_and_index, &total, &error)) return fail(&error);
    if (total > (uint64_t)64 << 20)
      return fail(&error); /* what a stranger says is not taken on trust: a limit of one's own */
    buffer = (uint8_t *)aligned_alloc(64, (size_t)((total + 63) / 64 * 64));
    if (!buffer) return fail(&error);
    memcpy(buffer, start, sizeof start);
    if (read_exactly(from, buffer + sizeof start, (size_t)total - sizeof start) != 1) return fail(&error);
    if (packbuf_open(&view, buffer, total, PACKBUF_OPEN_EXACT, NULL, &error) ||
        packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error))
      return fail(&error);
    rows += view.rows;
    fragments++;
    free(buffer);
  }
  if (more < 0) return fail(&error);
  printf("received %u rows in %u fragments\n", (unsigned)rows, (unsigned)fragments);
  return rows != ROWS;
}

int main(void) {
  int ends[2], status = 1;
  pid_t child;
  if (pipe(ends) || (child = fork()) < 0) return 1;
  if (child == 0) {
    close(ends[0]);
    exit(writer(ends[1]));
  }
  close(ends[1]);
  if (reader(ends[0])) return 1;
  return waitpid(child, &status, 0) != child || status != 0;
}
