/* The stack that calls take, measured: each runs in a thread whose stack is as large as core/packbuf.in.h says it must
 * be, with no page below it, and painted, so that what was touched can be told. `stack measure` gives each 64 MiB
 * instead.
 * May use: packbuf.h, tap.h, threads and mmap. */
#define _GNU_SOURCE 1
#include "../packbuf.h"
#include "tap.h"
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

/* What the header says, in KiB. */
enum { FLAT = 128, NESTED = 256, WITHIN_LIMITS = 1024 };

/* Sanitizers, builds without optimisation and other processors may take more. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__) || !defined(__x86_64__)
enum { TIMES = 16 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer)
enum { TIMES = 16 };
#else
enum { TIMES = 1 };
#endif
#else
enum { TIMES = 1 };
#endif

enum { ROWS = 300, WIDE = 400 };

static size_t measuring;

/* What calls have to work on, and what they made. */
typedef struct work {
  unsigned dicts,
      lists; /* how deep the cells are: dicts become nodes; in them lists, in every other row a number: JSON */
  packbuf_packing packing;
  packbuf_arena arena;
  packbuf_value rows[ROWS], back[ROWS], cell;
  packbuf_batch batch;
  packbuf_view view;
  void *data;
  uint64_t size;
  char *json;
  size_t json_size;
  packbuf_status status;
  packbuf_error error;
} work;

static int64_t numbers[ROWS * WIDE];

static void *room(work *w, size_t size) {
  void *memory = packbuf_arena_alloc(&w->arena, size, 16);
  if (!memory) exit(2);
  return memory;
}

static void make_rows(work *w) {
  for (unsigned row = 0; row < ROWS; row++) {
    packbuf_value at = packbuf_int(row % 7);
    for (unsigned i = 0; i < w->lists && row % 2 == 0; i++) {
      packbuf_value *item = (packbuf_value *)room(w, sizeof *item);
      *item = at;
      at = packbuf_list(item, 1);
    }
    if (row == 0) w->cell = at;
    for (unsigned i = 0; i < w->dicts; i++) {
      packbuf_entry *entry = (packbuf_entry *)room(w, sizeof *entry);
      entry->key = packbuf_string(i % 2 ? "a" : "b");
      entry->value = at;
      at = packbuf_dict(entry, 1);
    }
    w->rows[row] = at;
  }
}

static void pack(work *w) {
  const uint64_t shape[2] = {ROWS, WIDE};
  packbuf_options options = packbuf_default_options();
  packbuf_tensor tensor;
  uint32_t parts = 0;
  options.packing = (uint8_t)w->packing;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = numbers, tensor.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 64), tensor.rank = 2, tensor.shape = shape;
  w->status = packbuf_batch_init(&w->batch, ROWS, &w->arena, &options, &w->error);
  if (!w->status) w->status = packbuf_add_rows(&w->batch, w->rows, &w->error);
  if (!w->status) w->status = packbuf_add_tensor(&w->batch, "x", &tensor, NULL, &w->error);
  if (!w->status) w->status = packbuf_pack(&w->batch, &w->data, &w->size, &w->error);
  if (w->status) return;
  (void)packbuf_measure(&w->batch, &w->size, &w->error);
  w->data = room(w, w->size);
  w->status = packbuf_write_split(&w->batch, 3, &parts, &w->error);
  for (uint32_t i = 0; !w->status && i < parts; i++)
    w->status = packbuf_write_part(&w->batch, i, w->data, w->size, &w->error);
  if (!w->status) w->status = packbuf_write_finish(&w->batch, w->data, w->size, &w->size, &w->error);
}

static packbuf_status put(void *context, uint64_t offset, const void *bytes, size_t size) {
  (void)context, (void)offset, (void)bytes, (void)size;
  return PACKBUF_OK;
}

static void write_through(work *w) { w->status = packbuf_write_through(&w->batch, put, NULL, 0, &w->error); }

static void open_it(work *w) {
  w->status = packbuf_open(&w->view, w->data, w->size, PACKBUF_OPEN_EXACT | PACKBUF_OPEN_TABLES, NULL, &w->error);
}

static void verify(work *w) { w->status = packbuf_verify(&w->view, PACKBUF_LEVEL_FULL, &w->error); }

static void read_rows(work *w) {
  w->status = packbuf_read_rows(&w->view, 0, w->view.rows, &w->arena, w->back, &w->error);
}

static void unpack(work *w) {
  packbuf_node node;
  packbuf_buffer data;
  int64_t *back = (int64_t *)room(w, sizeof numbers);
  w->status = packbuf_find(&w->view, 0, "x", &node, &w->error);
  if (!w->status) w->status = packbuf_get_buffer(&w->view, &node, PACKBUF_ROLE_DATA, 0, &data, &w->error);
  if (!w->status)
    w->status = packbuf_copy_elements(&w->view, &data, 1, ROWS * WIDE - 2, back, sizeof numbers, &w->error);
  if (!w->status && memcmp(back, numbers + 1, sizeof numbers - 16) != 0) w->status = PACKBUF_BAD_BLOCK;
}

static void select_rows(work *w) {
  packbuf_selection s;
  packbuf_selected_size size;
  packbuf_select_into into;
  packbuf_range *ranges;
  const char *all = "**";
  uint64_t count;
  memset(&into, 0, sizeof into);
  w->status = packbuf_select(&w->view, 0, &all, 1, packbuf_rows_range(0, ROWS, 3), &w->arena, &s, &w->error);
  if (!w->status) w->status = packbuf_select_values(&s, 0, s.rows, &w->arena, w->back, &w->error);
  if (!w->status) w->status = packbuf_select_ranges(&s, 1, 0, 0, &w->arena, &ranges, &count, &w->error);
  for (uint32_t i = 0; !w->status && i < s.node_count; i++) {
    w->status = packbuf_select_size(&s, s.nodes[i], &size, &w->error);
    into.data = room(w, size.data_bytes), into.data_capacity = size.data_bytes, into.rows = size.rows,
    into.items = size.items;
    if (!w->status) w->status = packbuf_select_copy(&s, s.nodes[i], &into, NULL, &w->error);
    into.dtype = packbuf_dtype_of(PACKBUF_DTYPE_INT, 32); /* converted too, where there are integers and they fit */
    if (!w->status) (void)packbuf_select_copy(&s, s.nodes[i], &into, NULL, &w->error);
    memset(&into.dtype, 0, sizeof into.dtype);
  }
}

static void schema(work *w) {
  uint8_t print[PACKBUF_FINGERPRINT];
  w->status = packbuf_fingerprint(&w->view, print, &w->error);
}

static void concat(work *w) {
  packbuf_view views[2];
  packbuf_options options = packbuf_default_options();
  packbuf_batch batch;
  void *data;
  uint64_t size;
  views[0] = views[1] = w->view;
  options.packing = (uint8_t)w->packing;
  w->status = packbuf_concat(views, 2, PACKBUF_WIDEN, &w->arena, &options, &batch, &w->error);
  if (!w->status) w->status = packbuf_pack(&batch, &data, &size, &w->error);
}

static void write_json(work *w) {
  w->json = (char *)room(w, 1 << 16);
  w->status = packbuf_json_write(&w->cell, w->json, 1 << 16, &w->json_size, &w->error);
}

static void parse_json(work *w) {
  w->status = packbuf_json_parse(w->json, w->json_size, 0, &w->arena, &w->back[0], &w->error);
}

static void msgpack(work *w) {
  size_t size = 0;
  w->status = packbuf_msgpack_write(&w->cell, w->json, 1 << 16, &size, &w->error);
  if (!w->status) w->status = packbuf_msgpack_parse(w->json, size, 0, &w->arena, &w->back[0], &w->error);
}

/* ---- a thread for a call ---- */

typedef struct call {
  void (*run)(work *);
  work *on;
} call;

static void *in_thread(void *context) {
  call *c = (call *)context;
  c->run(c->on);
  return NULL;
}

/* Runs it on a stack of so many KiB; the KiB that it touched, what the thread itself takes with it; 0: no thread. */
static size_t touched(call *c, size_t kib) {
  const size_t page = 65536, size = measuring ? measuring : kib * TIMES << 10;
  uint8_t *memory = (uint8_t *)mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pthread_attr_t attributes;
  pthread_t thread;
  size_t at = 0;
  if (memory == (uint8_t *)MAP_FAILED || mprotect(memory, page, PROT_NONE)) return 0;
  memset(memory + page, 0xA5, size);
  pthread_attr_init(&attributes);
  if (!pthread_attr_setstack(&attributes, memory + page, size) && !pthread_create(&thread, &attributes, in_thread, c)) {
    pthread_join(thread, NULL);
    while (at < size && memory[page + at] == 0xA5) at++;
    at = (size - at + 1023) >> 10;
  }
  pthread_attr_destroy(&attributes);
  munmap(memory, size + page);
  return at;
}

static const struct {
  const char *name;
  void (*run)(work *);
  int reads; /* any packed buffer */
} calls[] = {{"pack, whole and in parts", pack, 0},
             {"write through a callback", write_through, 0},
             {"open with tables", open_it, 1},
             {"verify", verify, 1},
             {"unpack", unpack, 0},
             {"read rows", read_rows, 1},
             {"select", select_rows, 1},
             {"fingerprint", schema, 1},
             {"concatenate", concat, 0},
             {"write JSON", write_json, 0},
             {"parse JSON", parse_json, 0},
             {"MessagePack", msgpack, 0}};

static void test_calls(unsigned dicts, unsigned lists, packbuf_packing packing, size_t stack) {
  static work w;
  memset(&w, 0, sizeof w);
  w.dicts = dicts, w.lists = lists, w.packing = packing;
  packbuf_arena_init(&w.arena, NULL);
  make_rows(&w);
  for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    call c;
    size_t kib;
    c.run = calls[i].run, c.on = &w;
    w.status = PACKBUF_OK;
    kib = touched(&c, stack);
    if (!tap_ok(!w.status && kib, "%u dicts and %u lists deep, packing %u: %s in %lu KiB of stack: took %lu", dicts,
                lists, (unsigned)packing, calls[i].name, (unsigned long)stack, (unsigned long)kib)) {
      tap_note("%s", w.error.message ? w.error.message : "");
      break;
    }
  }
  packbuf_arena_free(&w.arena);
}

/* Nodes 64 deep, which the library reads but does not write: the limit unless a caller raises it. */
static void test_nodes(void) {
  static work w;
  FILE *file = fopen("spec/vectors/valid/depth_64.pbuf", "rb");
  call c;
  memset(&w, 0, sizeof w);
  packbuf_arena_init(&w.arena, NULL);
  w.data = room(&w, 1 << 16);
  if (file) w.size = fread(w.data, 1, 1 << 16, file), fclose(file);
  c.on = &w;
  for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    size_t kib;
    c.run = calls[i].run;
    if (!calls[i].reads) continue;
    kib = touched(&c, WITHIN_LIMITS);
    tap_ok(!w.status && kib, "nodes 64 deep: %s in %u KiB of stack: took %lu", calls[i].name, (unsigned)WITHIN_LIMITS,
           (unsigned long)kib);
  }
  packbuf_arena_free(&w.arena);
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "measure") == 0) measuring = (size_t)64 << 20;
  for (unsigned i = 0; i < ROWS * WIDE; i++) numbers[i] = i * 2654435761u >> (i % 9 ? 24 : 14);
  test_calls(1, 0, PACKBUF_PACKING_SMALLEST, FLAT);
  test_calls(32, 0, PACKBUF_PACKING_BALANCED, NESTED);
  test_calls(32, 32, PACKBUF_PACKING_SMALLEST, NESTED);
  test_calls(1, 64, PACKBUF_PACKING_NONE, NESTED);
  test_calls(32, 512, PACKBUF_PACKING_SMALLEST, WITHIN_LIMITS);
  test_nodes();
  return tap_plan_done();
}
