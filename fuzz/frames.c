/* Fuzz target: any bytes as a stream of frames, each header's magic and checksums put right so that what lies behind them is reached. Every frame is read by all
 * that reads frames of its type; what was read and is written again reads as the same. Pieces of the stream have sizes that the first byte says.
 * May use: packbuf_transport.h and its insides. Must not know: who speaks when. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "tests/internals.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds) {
  if (!holds) abort();
}

static volatile unsigned touched;
static uint8_t sink[256];
static uint64_t wanted, came;

static void touch(const void *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) touched += ((const uint8_t *)bytes)[i];
}

/* A frame that was written again is read as the one before. */
static void same(const uint8_t *body, const uint8_t *again, const packbuf_i_wire_to *writer) {
  demand(writer->ok && memcmp(body, again, (size_t)(writer->at - again)) == 0);
}

static void read_asked(const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  uint64_t keys, ranges;
  if (packbuf_i_request_check(frame, body, &keys, &ranges)) return;
  touched += (unsigned)packbuf_i_wire_take64(&reader);
  for (unsigned i = 0; i < frame->items; i++) {
    packbuf_i_asked asked;
    demand(!packbuf_i_asked_read(&reader, frame->type, &asked));
    touch(asked.key, asked.key_size);
    demand(asked.key_size && !memchr(asked.key, 0, asked.key_size) && asked.key_size <= keys && asked.range_count <= ranges);
    keys -= asked.key_size;
    ranges -= asked.range_count;
    if (asked.remote) demand(asked.size && !asked.eager && asked.address + (asked.size - 1) >= asked.address);
    if (asked.fingerprint) touch(asked.fingerprint, PACKBUF_FINGERPRINT);
    for (uint64_t k = 0; k < asked.range_count; k++) touched += (unsigned)packbuf_i_asked_range(asked.ranges, k).length;
  }
  demand(!keys && !ranges);
}

static void read_answers(const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  uint8_t again[512];
  packbuf_i_wire_to writer;
  if (frame->type == PACKBUF_I_LISTED) {
    packbuf_i_listing listing;
    if (packbuf_i_listing_read(&reader, &listing)) return;
    writer.at = again, writer.end = again + sizeof again, writer.ok = 1;
    packbuf_i_listing_write(&writer, &listing);
    same(body, again, &writer);
  }
  if (frame->type == PACKBUF_I_PAIRING) {
    packbuf_i_pairing pairing;
    if (packbuf_i_pairing_read(frame, body, &pairing)) return;
    writer.at = again, writer.end = again + sizeof again, writer.ok = 1;
    packbuf_i_pairing_write(&writer, &pairing);
    same(body, again, &writer);
    return;
  }
  for (unsigned i = 0; i < frame->items; i++) {
    const uint8_t *at = reader.at;
    writer.at = again, writer.end = again + sizeof again, writer.ok = 1;
    if (frame->type == PACKBUF_I_LISTED) {
      packbuf_listed listed;
      if (packbuf_i_listed_read(&reader, &listed)) return;
      packbuf_i_listed_write(&writer, &listed);
    } else if (frame->type == PACKBUF_I_LOCATED) {
      packbuf_i_located located;
      if (packbuf_i_located_read(&reader, &located)) return;
      demand(located.address + located.stat.length >= located.address);
      packbuf_i_located_write(&writer, &located);
    } else {
      packbuf_i_result result;
      if (packbuf_i_result_read(&reader, &result)) return;
      packbuf_i_result_write(&writer, &result);
    }
    same(at, again, &writer);
  }
}

static void read_greeting(const packbuf_i_frame *frame, const uint8_t *body) {
  uint8_t again[512];
  packbuf_i_wire_to writer;
  packbuf_i_hello hello;
  packbuf_i_welcome welcome;
  packbuf_i_list_ask list;
  packbuf_i_bye bye;
  writer.at = again, writer.end = again + sizeof again, writer.ok = 1;
  switch (frame->type) {
    case PACKBUF_I_HELLO:
      if (packbuf_i_hello_read(frame, body, &hello)) return;
      packbuf_i_hello_write(&writer, &hello);
      if (strlen(hello.name) != body[80]) return; /* a NUL in it was refused */
      break;
    case PACKBUF_I_WELCOME:
      if (packbuf_i_welcome_read(frame, body, &welcome)) return;
      packbuf_i_welcome_write(&writer, &welcome);
      break;
    case PACKBUF_I_LIST:
      if (packbuf_i_list_read(frame, body, &list)) return;
      packbuf_i_list_write(&writer, &list);
      break;
    default:
      if (packbuf_i_bye_read(frame, body, &bye)) return;
      packbuf_i_bye_write(&writer, (packbuf_status)bye.status, bye.text);
      break;
  }
  same(body, again, &writer);
}

static const char *on_frame(void *context, const packbuf_i_frame *frame, const uint8_t *body) {
  uint64_t offset;
  uint16_t index;
  (void)context;
  touch(body, frame->body);
  wanted += frame->payload;
  switch (frame->type) {
    case PACKBUF_I_PUT:
    case PACKBUF_I_GET:
    case PACKBUF_I_STAT:
    case PACKBUF_I_REMOVE: read_asked(frame, body); break;
    case PACKBUF_I_RESULT:
    case PACKBUF_I_PAIRING:
    case PACKBUF_I_LOCATED:
    case PACKBUF_I_LISTED: read_answers(frame, body); break;
    case PACKBUF_I_HELLO:
    case PACKBUF_I_WELCOME:
    case PACKBUF_I_LIST:
    case PACKBUF_I_BYE: read_greeting(frame, body); break;
    case PACKBUF_I_DATA:
      if (!packbuf_i_data_read(frame, body, &index, &offset)) demand(offset + frame->payload <= (uint64_t)INT64_MAX);
      break;
    default: break;
  }
  return NULL;
}

static uint8_t *on_place(void *context, uint64_t *size) {
  (void)context;
  if (*size > sizeof sink) *size = sizeof sink;
  return *size % 3 ? sink : NULL;
}

static const char *on_placed(void *context, uint64_t size) {
  (void)context;
  came += size;
  return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const packbuf_i_intake_taker taker = {on_frame, on_place, on_placed};
  packbuf_i_intake intake;
  uint8_t *copy;
  size_t at = 1, piece;
  const char *why = NULL;
  if (size < 2) return 0;
  piece = data[0] ? data[0] : 4096;
  copy = (uint8_t *)malloc(size);
  if (!copy) return 0;
  memcpy(copy, data, size);
  while (at + PACKBUF_I_FRAME_HEADER <= size) { /* headers follow each other as their lengths say */
    uint8_t *frame = copy + at;
    uint64_t left = size - at - PACKBUF_I_FRAME_HEADER, body = packbuf_i_load32(frame + 16), payload = packbuf_i_load64(frame + 24);
    packbuf_i_store32(frame, PACKBUF_I_FRAME_MAGIC);
    if (body > left) {
      body = left;
      packbuf_i_store32(frame + 16, (uint32_t)body);
    }
    packbuf_i_store32(frame + 20, packbuf_i_wire_crc(frame + PACKBUF_I_FRAME_HEADER, (size_t)body));
    packbuf_i_store32(frame + 36, packbuf_i_wire_crc(frame, 36));
    left -= body;
    at += PACKBUF_I_FRAME_HEADER + (size_t)body + (size_t)(payload < left ? payload : left);
  }
  memset(&intake, 0, sizeof intake);
  wanted = came = 0;
  intake.taker = &taker;
  intake.most_body = 65536;
  for (at = 1; at < size && !why; at += piece) {
    uint8_t *exact = (uint8_t *)malloc(piece); /* so that a read past the piece is seen */
    const size_t some = size - at < piece ? size - at : piece;
    if (!exact) break;
    memcpy(exact + piece - some, copy + at, some);
    why = packbuf_i_intake_feed(&intake, exact + piece - some, some);
    free(exact);
  }
  demand(came <= wanted && (why || came + intake.payload == wanted));
  packbuf_i_intake_end(&intake);
  free(copy);
  return 0;
}
