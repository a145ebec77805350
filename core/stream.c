/* core/stream.c: a plan through a callback that takes bytes at an offset: data first, then the index, the head last. A
 * window of memory, the head and the checksums are all that is held.
 * May use: arena (scratch), batch, plan, output, write, checksums. Must not know: files. */

#define PACKBUF_I_WINDOW ((uint64_t)1 << 20)

typedef struct packbuf_i_window {
  packbuf_i_writer writer; /* first, so that a flush finds its window */
  packbuf_write_at put;
  void *context;
  uint8_t *bytes;
  uint64_t size;
  uint32_t crc; /* of what was put, for the index */
} packbuf_i_window;

static packbuf_status packbuf_i_put(packbuf_i_window *window, uint64_t offset, const uint8_t *bytes, uint64_t size) {
  packbuf_status status = size ? window->put(window->context, offset, bytes, (size_t)size) : PACKBUF_OK;
  return status ? packbuf_i_fail(window->writer.error, status, "the callback did not take the bytes", offset,
                                 PACKBUF_NOWHERE)
                : PACKBUF_OK;
}

static packbuf_status packbuf_i_flush_window(packbuf_i_writer *writer) {
  packbuf_i_window *window = (packbuf_i_window *)(void *)writer;
  packbuf_i_out *out = &writer->out;
  uint64_t size = out->at - out->first;
  packbuf_status status;
  packbuf_i_out_settle(out);
  window->crc = packbuf_checksum(window->crc, window->bytes, out->checksums ? 0 : (size_t)size);
  status = packbuf_i_put(window, writer->section + out->first, window->bytes, size);
  out->first = out->at;
  out->limit = (out->at + window->size) / 64 * 64; /* so that no element is cut */
  if (out->limit > writer->stretch->to) out->limit = writer->stretch->to;
  return status;
}

/* A whole section, from its byte `from` on, through the window. */
static packbuf_status packbuf_i_put_section(packbuf_i_window *window, packbuf_i_plan *plan, int data, uint64_t from,
                                            uint8_t *checksums) {
  packbuf_i_writer *writer = &window->writer;
  packbuf_i_stretch stretch;
  packbuf_status status;
  memset(&stretch, 0, sizeof stretch);
  stretch.from = from;
  stretch.to = data ? plan->plain_length : plan->index_length;
  writer->stretch = &stretch;
  writer->section = data ? packbuf_i_data_at(plan) : plan->head_length;
  writer->flush = packbuf_i_flush_window;
  packbuf_i_out_begin(&writer->out, window->bytes, from, from, checksums, 0);
  status = packbuf_i_flush_window(writer); /* nothing yet: sets the limit */
  if (!status && data) return packbuf_i_write_data(writer, plan);
  if (!status) status = packbuf_i_write_stretch(writer, data);
  return status ? status : packbuf_i_flush_window(writer);
}

/* The bytes of the largest cell that is encoded where it goes: the window must hold it. */
static uint64_t packbuf_i_largest_cell(const packbuf_i_plan *plan) {
  uint64_t largest = 0;
  for (uint32_t i = 0; i < plan->buffer_count; i++) {
    const packbuf_i_planned *buffer = &plan->buffers[i];
    if (buffer->storage != PACKBUF_STORED || !buffer->pushed) continue;
    for (uint64_t row = 0; row < buffer->node->rows; row++)
      if (buffer->node->sizes[row] > largest) largest = buffer->node->sizes[row];
  }
  return largest;
}

PACKBUF_API packbuf_status packbuf_write_through(packbuf_batch *batch, packbuf_write_at put, void *context,
                                                 uint64_t window_size, packbuf_error *error) {
  packbuf_i_window window;
  packbuf_i_plan *plan;
  uint8_t *memory, *checksums;
  uint64_t needed, fixed, sums;
  packbuf_status status = packbuf_measure(batch, &needed, error);
  if (!status && !put)
    status = packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "there is no callback", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (status) return status;
  plan = batch->plan;
  memset(&window, 0, sizeof window);
  window.writer.plan = plan;
  window.writer.error = error;
  window.put = put;
  window.context = context;
  window.size = packbuf_i_largest_cell(plan) + 64;
  if (!window_size) window_size = PACKBUF_I_WINDOW;
  if (window.size < 4096) window.size = 4096;
  if (window.size < window_size) window.size = window_size;
  fixed = plan->head_length + plan->checksums * 4;
  if (window.size > SIZE_MAX / 2 || fixed > SIZE_MAX / 2) return packbuf_i_no_memory(error);
  memory = (uint8_t *)packbuf_i_scratch(batch->arena, NULL, 0, (size_t)(fixed + window.size));
  if (!memory) return packbuf_i_no_memory(error);
  checksums = memory + plan->head_length;
  window.bytes = memory + fixed;
  status = packbuf_i_put_section(&window, plan, 1, 0, plan->checksums ? checksums : NULL);
  sums = plan->checksums ? 4 * packbuf_i_chunks(plan->data_length) : 0;
  window.crc = packbuf_checksum(0, checksums, (size_t)sums);
  if (!status) status = packbuf_i_put(&window, plan->head_length, checksums, sums);
  if (!status) status = packbuf_i_put_section(&window, plan, 0, sums, NULL);
  if (!status) {
    packbuf_i_close_head(memory, plan, window.crc);
    status = packbuf_i_put(&window, 0, memory, plan->head_length);
  }
  (void)packbuf_i_scratch(batch->arena, memory, (size_t)(fixed + window.size), 0);
  return status;
}
