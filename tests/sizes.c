/* tests/sizes.c: lengths and counts beyond 4 GiB, in packed buffers and in calls: refused or handled, never cut to the
 * bits of a size_t. Says most where size_t has 32 bits (-m32, armhf, wasm32), and holds everywhere.
 * May use: packbuf.h and its insides, sealing.h, tap.h. Must not know: how records are written. */
#include "../packbuf.h"
#include "sealing.h"
#include "tap.h"

#define HUGE_SIZE (((uint64_t)1 << 32) + 5)
#define NARROW (sizeof(size_t) < 8)

static packbuf_error error;

/* One row: bytes that are all equal, which are stored as a constant. */
static uint8_t *pack_bytes(packbuf_arena *arena, uint64_t *size) {
  static const char same[101] =
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
  packbuf_batch batch;
  static const int32_t offsets[2] = {0, 100};
  packbuf_ragged ragged;
  void *data = NULL;
  memset(&ragged, 0, sizeof ragged);
  ragged.data = same;
  ragged.dtype = packbuf_dtype_of(PACKBUF_DTYPE_UINT, 8);
  ragged.offset_bits = 32;
  ragged.offsets = offsets;
  ragged.items = 100;
  packbuf_arena_init(arena, NULL);
  if (packbuf_batch_init(&batch, 1, arena, NULL, &error) || packbuf_add_ragged(&batch, "x", &ragged, &error) ||
      packbuf_pack(&batch, &data, size, &error))
    exit(2);
  return (uint8_t *)data;
}

/* Where the record of a buffer's role lies, and the count and value in it. */
static uint8_t *record(uint8_t *data, const packbuf_view *view, packbuf_role role) {
  packbuf_node node;
  packbuf_buffer buffer;
  if (packbuf_get_node(view, 0, &node, &error) || packbuf_get_buffer(view, &node, role, 0, &buffer, &error)) exit(2);
  return data + bytes_buffer_at(view, buffer.index);
}

/* A cell that is 4 GiB + 5 times one byte. */
static void long_cell(void) {
  packbuf_arena arena;
  packbuf_view view;
  packbuf_buffer buffer;
  packbuf_node node;
  packbuf_value value;
  packbuf_column column;
  uint8_t two[2] = {7, 7};
  uint64_t size, first = 0, count = 0;
  uint8_t *data = pack_bytes(&arena, &size), *at;
  packbuf_status status = packbuf_open(&view, data, size, 0, NULL, &error);
  tap_ok(status == PACKBUF_OK, "100 equal bytes");
  at = record(data, &view, PACKBUF_ROLE_DATA);
  tap_ok(bytes_load64(at + 16) == 100, "the count stands in the record");
  bytes_store64(at + 16, HUGE_SIZE);
  at = record(data, &view, PACKBUF_ROLE_OFFSETS);
  for (unsigned i = 16; i + 8 <= view.buffer_stride; i += 8) /* inline, or the step of a sequence */
    if (bytes_load64(at + i) == 100) bytes_store64(at + i, HUGE_SIZE);
  seal_head(data, size);
  status = packbuf_open(&view, data, size, 0, NULL, &error);
  if (!status) status = packbuf_verify(&view, PACKBUF_LEVEL_FULL, &error);
  tap_ok(status == PACKBUF_OK, "the same for 2^32 + 5 bytes is valid: %s %s", packbuf_status_name(status),
         packbuf_rule_name(error.rule));
  status = packbuf_open_column(&view, 0, &column, &error);
  if (!status) status = packbuf_cell_extent(&column, 0, &first, &count, &error);
  tap_ok(!status && first == 0 && count == HUGE_SIZE, "its extent");
  if (!NARROW) arena.limit = arena.used + (1 << 24);
  status = packbuf_read_cell(&view, 0, 0, &arena, &value, &error);
  tap_ok(status == PACKBUF_OUT_OF_MEMORY || status == PACKBUF_LIMIT, "is no cell in memory: %s",
         packbuf_status_name(status));
  if (packbuf_get_node(&view, 0, &node, &error) ||
      packbuf_get_buffer(&view, &node, PACKBUF_ROLE_DATA, 0, &buffer, &error))
    exit(2);
  status = packbuf_copy_elements(&view, &buffer, 0, HUGE_SIZE, two, sizeof two, &error);
  tap_ok(status == PACKBUF_CAPACITY, "does not fit two bytes: %s", packbuf_status_name(status));
  if (NARROW) {
    status = packbuf_copy_elements(&view, &buffer, 0, HUGE_SIZE, two, UINT64_MAX, &error);
    tap_ok(status == PACKBUF_CAPACITY && two[0] == 7, "nor memory of any claimed size: %s",
           packbuf_status_name(status));
  }
  status = packbuf_copy_elements(&view, &buffer, HUGE_SIZE - 2, 2, two, sizeof two, &error);
  tap_ok(status == PACKBUF_OK && two[0] == 'a' && two[1] == 'a', "its last two bytes can be had");
  packbuf_arena_free(&arena);
}

/* A header that claims more than there is, by 2^32 bytes. */
static void long_header(void) {
  static const unsigned places[3] = {24, 32, 40}; /* total, head, index length */
  packbuf_arena arena;
  packbuf_view view;
  uint64_t size, whole;
  uint8_t *data = pack_bytes(&arena, &size);
  int refused = 1;
  for (unsigned i = 0; i < 3; i++) {
    const uint64_t was = bytes_load64(data + places[i]);
    bytes_store64(data + places[i], was + ((uint64_t)1 << 32));
    refused &= packbuf_open(&view, data, size, 0, NULL, &error) != PACKBUF_OK;
    bytes_store64(data + places[i], was);
  }
  tap_ok(refused, "total, head and index length + 2^32: refused");
  whole = bytes_load64(data + 24);
  bytes_store64(data + 24, whole + ((uint64_t)1 << 32));
  seal_head(data, size);
  tap_ok(packbuf_open(&view, data, size, 0, NULL, &error) != PACKBUF_OK,
         "a total length + 2^32 under a right checksum: refused, %s", packbuf_rule_name(error.rule));
  bytes_store64(data + 24, whole);
  seal_head(data, size);
  tap_ok(packbuf_open(&view, data, size, 0, NULL, &error) == PACKBUF_OK, "as it was: opens");
  if (NARROW)
    tap_ok(packbuf_open(&view, data, size + ((uint64_t)1 << 32), 0, NULL, &error) == PACKBUF_INVALID_ARGUMENT,
           "memory larger than the address space: refused");
  packbuf_arena_free(&arena);
}

/* Bits: 2^32 + 8 of them are 512 MiB + 1 byte. */
static void many_bits(void) {
  const size_t bytes = ((size_t)1 << 29) + 1;
  packbuf_arena arena;
  packbuf_view view;
  packbuf_buffer buffer;
  packbuf_status status;
  uint64_t size;
  uint8_t *data = pack_bytes(&arena, &size), *out = (uint8_t *)calloc(bytes, 1);
  if (packbuf_open(&view, data, size, 0, NULL, &error) || packbuf_get_buffer_at(&view, 0, &buffer, &error)) exit(2);
  memset(buffer.value, 1, sizeof buffer.value);
  buffer.bytes = NULL;
  buffer.storage = PACKBUF_CONSTANT;
  buffer.dtype = packbuf_dtype_of(PACKBUF_DTYPE_BOOL, 1);
  buffer.count = ((uint64_t)1 << 32) + 8;
  status = out ? packbuf_copy_elements(&view, &buffer, 0, buffer.count, out, bytes, &error) : PACKBUF_OUT_OF_MEMORY;
  if (out)
    tap_ok(status == PACKBUF_OK && out[0] == 0xFF && out[1] == 0xFF && out[bytes - 1] == 0xFF,
           "2^32 + 8 bits are all copied: %s", packbuf_status_name(status));
  else tap_ok(1, "no 512 MiB here");
  free(out);
  packbuf_arena_free(&arena);
}

static void long_text(void) {
  enum { N = 5000, SIZE = 1 << 20 };
  packbuf_value *items = (packbuf_value *)malloc(N * sizeof *items), list;
  char *text = (char *)calloc(SIZE, 1);
  size_t size = 0;
  packbuf_status status;
  if (!items || !text) exit(2);
  for (unsigned i = 0; i < N; i++) items[i] = packbuf_bytes(text, SIZE);
  list = packbuf_list(items, N);
  status = packbuf_msgpack_write(&list, NULL, 0, &size, &error);
  if (NARROW) tap_ok(status == PACKBUF_LIMIT, "5 GiB of MessagePack: %s", packbuf_status_name(status));
  else tap_ok(status == PACKBUF_OK && size > (size_t)N * SIZE, "5 GiB of MessagePack are measured");
  free(items);
  free(text);
}

int main(void) {
  long_cell();
  long_header();
  many_bits();
  long_text();
  return tap_plan_done();
}
