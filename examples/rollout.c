/* A rollout worker and a learner, two processes, over one store: the worker packs a batch straight into the store's
 * memory and hands over a ref, one line of text; the learner takes two fields of a quarter of the rows, and nothing else,
 * then removes the batch. `rollout [URI]`: shm: of its own without one; tcp:// or verbs://HOST:PORT of
 * `packbuf serve` and mooncake://MASTER:PORT?segment=0 do as well. */
#define PACKBUF_IMPLEMENTATION
#include "../transport/packbuf_transport.h"
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 64, LONGEST = 300 };

static packbuf_error error;

static int failed(const char *who) {
  char line[512];
  (void)packbuf_error_format(&error, line, sizeof line);
  fprintf(stderr, "%s: %s\n", who, line);
  return 1;
}

/* Token ids and log-probs of ROWS responses, and a reward each. */
static packbuf_status add_fields(packbuf_batch *batch) {
  static int64_t tokens[ROWS * LONGEST], offsets[ROWS + 1];
  static float log_probs[ROWS * LONGEST], rewards[ROWS];
  static uint64_t shape[1] = {ROWS};
  packbuf_tensor reward = {rewards, {PACKBUF_DTYPE_FLOAT, 32, 1}, 1, PACKBUF_FORM_NATURAL, shape, NULL, NULL};
  packbuf_ragged ragged;
  packbuf_status status;
  for (int row = 0; row < ROWS; row++) {
    offsets[row + 1] = offsets[row] + 40 + row * 37 % 250;
    rewards[row] = row % 4 == 0 ? 1.0f : 0.0f;
    for (int64_t i = offsets[row]; i < offsets[row + 1]; i++) {
      tokens[i] = (i * 2654435761) % 151936;
      log_probs[i] = -0.01f * (float)(i % 100);
    }
  }
  memset(&ragged, 0, sizeof ragged);
  ragged.data = tokens;
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64);
  ragged.items = (uint64_t)offsets[ROWS];
  ragged.offsets = offsets;
  ragged.offset_bits = 64;
  status = packbuf_add_ragged(batch, "tokens", &ragged, &error);
  ragged.data = log_probs;
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_FLOAT, 32);
  if (!status) status = packbuf_add_ragged(batch, "log_probs", &ragged, &error);
  return status ? status : packbuf_add_tensor(batch, "reward", &reward, NULL, &error);
}

static int work(const char *uri, int to_learner, int from_learner) {
  packbuf_options packing = packbuf_default_options();
  packbuf_put_options options;
  packbuf_store *store;
  packbuf_arena arena;
  packbuf_batch batch;
  packbuf_ref ref;
  char text[PACKBUF_REF_TEXT], done;
  size_t size = 0;
  packing.packing = PACKBUF_PACKING_FASTEST;
  packbuf_arena_init(&arena, NULL);
  memset(&options, 0, sizeof options);
  options.deadline = packbuf_deadline_in(10000);
  if (packbuf_store_open(uri, NULL, &store, &error) || packbuf_batch_init(&batch, ROWS, &arena, &packing, &error) ||
      add_fields(&batch) || packbuf_put(store, "step/0/worker/3", &batch, &options, &ref, &error) ||
      packbuf_ref_write(&ref, text, sizeof text, &size, &error))
    return failed("worker");
  printf("worker: put %llu bytes\n", (unsigned long long)ref.length);
  fflush(stdout);
  if (write(to_learner, text, size) != (ssize_t)size || close(to_learner)) return 1;
  (void)!read(from_learner, &done, 1); /* the store `local` of another process would not outlive us; others do */
  packbuf_arena_free(&arena);
  return packbuf_store_close(store, packbuf_deadline_in(1000), &error) ? failed("worker") : 0;
}

static int learn(const char *uri, int from_worker) {
  static const char *const fields[] = {"tokens", "reward"};
  static float rewards[ROWS];
  packbuf_wanted wanted;
  packbuf_get_options options;
  packbuf_select_into into;
  packbuf_object object;
  packbuf_store *store;
  packbuf_ref ref;
  packbuf_node reward;
  char text[PACKBUF_REF_TEXT];
  size_t size = 0;
  ssize_t some;
  while ((some = read(from_worker, text + size, sizeof text - size)) > 0) size += (size_t)some;
  memset(&wanted, 0, sizeof wanted);
  wanted.patterns = fields;
  wanted.pattern_count = 2;
  wanted.rows = packbuf_rows_range(1, PACKBUF_ROWS_END, 4);
  memset(&options, 0, sizeof options);
  options.deadline = packbuf_deadline_in(10000);
  if (packbuf_ref_parse(text, size, &ref, &error) || packbuf_store_open(uri, NULL, &store, &error) ||
      packbuf_get_select(store, &ref, &wanted, &options, &object, &error) ||
      packbuf_find(object.views, 0, "reward", &reward, &error))
    return failed("learner");
  memset(&into, 0, sizeof into);
  into.data = rewards;
  into.data_capacity = sizeof rewards;
  if (packbuf_select_copy(object.selection, reward.index, &into, NULL, &error)) return failed("learner");
  printf("learner: %llu rows of 2 fields, %llu of %llu bytes moved, first reward %g\n",
         (unsigned long long)object.selection->rows, (unsigned long long)object.moved, (unsigned long long)ref.length,
         (double)rewards[0]);
  packbuf_object_release(&object);
  /* Mooncake keeps what was read for some seconds (LEASED until then); of others the memory is back at once */
  if (packbuf_remove(store, &ref, packbuf_deadline_in(20000), &error) ||
      packbuf_store_close(store, packbuf_deadline_in(1000), &error))
    return failed("learner");
  return 0;
}

int main(int argc, char **argv) {
  char uri[64], path[80];
  int refs[2], end[2], status = 0, result;
  pid_t learner;
  snprintf(uri, sizeof uri, "shm:example-%ld?size=16m", (long)getpid());
  snprintf(path, sizeof path, "/dev/shm/packbuf.example-%ld", (long)getpid());
  if (pipe(refs) || pipe(end)) return 1;
  learner = fork(); /* before a store is opened */
  if (learner < 0) return 1;
  if (learner == 0) {
    (void)close(refs[1]);
    return learn(argc > 1 ? argv[1] : uri, refs[0]);
  }
  (void)close(end[1]);
  (void)close(refs[0]);
  result = work(argc > 1 ? argv[1] : uri, refs[1], end[0]);
  (void)close(refs[1]);
  if (waitpid(learner, &status, 0) != learner || status) result = 1;
  if (argc == 1) (void)unlink(path);
  return result;
}
