/* tests/store_frames.c: the frames of the protocol. The worked frames of spec/transport.md are what the library writes,
 * and are read back as the numbers that stand there; every bit of each is flipped and every length cut; streams come in
 * pieces of every size.
 * May use: internals.h, spec/transport.md (or the file argv[1]). Must not know: sockets, stores.
 * With --write it prints the worked frames instead. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "fence.h"

static void verdict(const char *what) { verdict_on("", what); }

typedef struct made {
  const char *name;
  uint8_t bytes[1024];
  size_t size, payload; /* payload: of `size`, what follows the body */
} made;

static made frames[24];
static unsigned frame_count;

static void counting(uint8_t *to, size_t size, unsigned from) {
  for (size_t i = 0; i < size; i++) to[i] = (uint8_t)(from + i);
}

static packbuf_i_wire_to begin_frame(made *frame, const char *name) {
  frame->name = name;
  return packbuf_i_frame_body(frame->bytes, sizeof frame->bytes);
}

static void end_frame(made *frame, const packbuf_i_wire_to *body, unsigned type, uint64_t items, uint64_t request,
                      const char *payload) {
  frame->payload = strlen(payload);
  frame->size = packbuf_i_frame_end(frame->bytes, body, type, items, request, frame->payload);
  memcpy(frame->bytes + frame->size, payload, frame->payload);
  frame->size += frame->payload;
}

static packbuf_stat some_stat(void) {
  packbuf_stat stat;
  memset(&stat, 0, sizeof stat);
  stat.generation = 0x00ABCDEF12345000u;
  stat.length = 8192;
  stat.head_length = 640;
  stat.age_ms = 1500;
  stat.left_ms = UINT64_MAX;
  stat.head_checksum = 0x01020304;
  stat.flags = PACKBUF_PUT_EVICTABLE;
  stat.leases = 2;
  stat.kind = PACKBUF_OBJECT_BATCH;
  counting(stat.fingerprint, PACKBUF_FINGERPRINT, 0xF0);
  return stat;
}

static const packbuf_range some_ranges[2] = {{0, 640}, {4096, 100}};

static void greeting_frames(void) {
  packbuf_i_hello hello;
  packbuf_i_welcome welcome;
  packbuf_i_wire_to body;
  made *frame = &frames[frame_count++];
  memset(&hello, 0, sizeof hello);
  hello.least = hello.most = 1;
  counting(hello.nonce, 32, 0);
  counting(hello.session, 16, 0xA0);
  hello.quota = 1 << 30;
  strcpy(hello.name, "actor-7");
  body = begin_frame(frame, "HELLO");
  packbuf_i_hello_write(&body, &hello);
  end_frame(frame, &body, PACKBUF_I_HELLO, 0, 0, "");
  memset(&welcome, 0, sizeof welcome);
  welcome.version = 1;
  welcome.proof = 1;
  welcome.most_items = 4096;
  welcome.most_requests = 16;
  welcome.eager_item = 65536;
  welcome.eager_all = 1048576;
  welcome.capabilities = 0x3FF;
  counting(welcome.nonce, 32, 0x80);
  counting(welcome.server, 16, 0xB0);
  frame = &frames[frame_count++];
  body = begin_frame(frame, "WELCOME");
  packbuf_i_welcome_write(&body, &welcome);
  end_frame(frame, &body, PACKBUF_I_WELCOME, 0, 0, "");
  for (int server = 0; server < 2; server++) {
    const made *const first = &frames[0], *const second = &frames[1];
    uint8_t proof[32];
    frame = &frames[frame_count++];
    packbuf_i_proof_make("open sesame", 11, server ? 'S' : 'C', first->bytes + 40, first->size - 40, second->bytes + 40,
                         second->size - 40, proof);
    body = begin_frame(frame, server ? "PROVEN" : "PROOF");
    packbuf_i_wire_give(&body, proof, 32);
    end_frame(frame, &body, server ? PACKBUF_I_PROVEN : PACKBUF_I_PROOF, 0, 0, "");
  }
}

static void request_frames(void) {
  packbuf_item items[2];
  packbuf_ref about;
  packbuf_i_wire_to body;
  packbuf_stat stat = some_stat();
  made *frame;
  memset(items, 0, sizeof items);
  memset(&about, 0, sizeof about);
  about.kind = stat.kind;
  about.head_length = stat.head_length;
  about.head_checksum = stat.head_checksum;
  memcpy(about.fingerprint, stat.fingerprint, sizeof about.fingerprint);
  items[0].key = "job7/step12";
  items[0].size = 8192;
  items[0].about = &about;
  items[0].flags = PACKBUF_PUT_EVICTABLE;
  items[0].ttl_ms = 60000;
  items[1].key = "note";
  items[1].size = 5;
  frame = &frames[frame_count++];
  body = begin_frame(frame, "PUT");
  packbuf_i_wire_give64(&body, 2000000000u);
  packbuf_i_put_item_write(&body, &items[0], PACKBUF_I_WAY_GRANTED, 0);
  packbuf_i_put_item_write(&body, &items[1], PACKBUF_I_WAY_EAGER, 0);
  end_frame(frame, &body, PACKBUF_I_PUT, 2, 1, "hello");
  frame = &frames[frame_count++];
  body = begin_frame(frame, "GRANT");
  packbuf_i_wire_give16(&body, 0);
  end_frame(frame, &body, PACKBUF_I_GRANT, 1, 1, "");
  frame = &frames[frame_count++];
  body = begin_frame(frame, "DATA");
  packbuf_i_data_write(&body, 0, 8184);
  end_frame(frame, &body, PACKBUF_I_DATA, 1, 1, "the end.");
  items[0].generation = stat.generation;
  items[0].ranges = some_ranges;
  items[0].range_count = 2;
  frame = &frames[frame_count++];
  body = begin_frame(frame, "GET");
  packbuf_i_wire_give64(&body, UINT64_MAX);
  packbuf_i_get_item_write(&body, &items[0]);
  packbuf_i_get_item_write(&body, &items[1]);
  end_frame(frame, &body, PACKBUF_I_GET, 2, 2, "");
  for (unsigned type = PACKBUF_I_STAT; type <= PACKBUF_I_REMOVE; type++) {
    frame = &frames[frame_count++];
    body = begin_frame(frame, type == PACKBUF_I_STAT ? "STAT" : "REMOVE");
    packbuf_i_wire_give64(&body, 0);
    packbuf_i_name_item_write(&body, &items[0], type == PACKBUF_I_STAT ? 0 : PACKBUF_REMOVE_FORCE);
    end_frame(frame, &body, type, 1, type - 6, "");
  }
}

static void answer_frames(void) {
  packbuf_i_result result;
  packbuf_i_list_ask list;
  packbuf_i_listing listing;
  packbuf_listed listed;
  packbuf_i_wire_to body;
  made *frame = &frames[frame_count++];
  memset(&result, 0, sizeof result);
  result.stat = some_stat();
  result.follows = 740;
  body = begin_frame(frame, "RESULT");
  packbuf_i_result_write(&body, &result);
  memset(&result, 0, sizeof result);
  result.index = 1;
  result.status = PACKBUF_NOT_FOUND;
  packbuf_i_result_write(&body, &result);
  end_frame(frame, &body, PACKBUF_I_RESULT, 2, 2, "");
  memset(&list, 0, sizeof list);
  list.most = 100;
  list.options = PACKBUF_I_LIST_COLLECT;
  strcpy(list.prefix, "job7/");
  frame = &frames[frame_count++];
  body = begin_frame(frame, "LIST");
  packbuf_i_list_write(&body, &list);
  end_frame(frame, &body, PACKBUF_I_LIST, 0, 5, "");
  memset(&listing, 0, sizeof listing);
  listing.cursor = 77;
  listing.size = 1 << 28;
  listing.used = 8192;
  listing.objects = 1;
  listing.most_objects = 4096;
  memset(&listed, 0, sizeof listed);
  strcpy(listed.key, "job7/step12");
  listed.stat = some_stat();
  frame = &frames[frame_count++];
  body = begin_frame(frame, "LISTED");
  packbuf_i_listing_write(&body, &listing);
  packbuf_i_listed_write(&body, &listed);
  end_frame(frame, &body, PACKBUF_I_LISTED, 1, 5, "");
  for (unsigned type = PACKBUF_I_CANCEL; type <= PACKBUF_I_BYE; type++) {
    static const char *const names[] = {"CANCEL", "PING", "PONG", "BYE"};
    frame = &frames[frame_count++];
    body = begin_frame(frame, names[type - PACKBUF_I_CANCEL]);
    if (type == PACKBUF_I_BYE) packbuf_i_bye_write(&body, PACKBUF_DENIED, "wrong secret");
    end_frame(frame, &body, type, 0, type == PACKBUF_I_BYE ? 0 : 1, "");
  }
}

/* Those of queue pairs. */
static void verbs_frames(void) {
  packbuf_i_pairing pairing;
  packbuf_i_located located;
  packbuf_item item;
  packbuf_i_wire_to body;
  made *frame = &frames[frame_count++];
  memset(&pairing, 0, sizeof pairing);
  pairing.mtu = 5;
  pairing.reads = 16;
  pairing.gid[10] = pairing.gid[11] = 0xFF;
  counting(pairing.gid + 12, 4, 10);
  pairing.address = 0x7F0000002000;
  pairing.rkey = 0x1234;
  pairing.words = 512;
  pairing.count = 2;
  for (uint32_t i = 0; i < 2; i++) pairing.numbers[i] = 17 + i, pairing.psns[i] = 0xABCDEF - i;
  body = begin_frame(frame, "QP");
  packbuf_i_pairing_write(&body, &pairing);
  end_frame(frame, &body, PACKBUF_I_PAIRING, 2, 6, "");
  memset(&item, 0, sizeof item);
  item.key = "job7/step12";
  item.from = (const void *)(uintptr_t)0x10001000;
  item.size = 8192;
  frame = &frames[frame_count++];
  body = begin_frame(frame, "PUT-READ");
  packbuf_i_wire_give64(&body, 2000000000u);
  packbuf_i_put_item_write(&body, &item, PACKBUF_I_WAY_REMOTE, 0x5678);
  end_frame(frame, &body, PACKBUF_I_PUT, 1, 7, "");
  memset(&located, 0, sizeof located);
  located.word = 3;
  located.rkey = 0x9ABC;
  located.address = 0x7F0000100000;
  located.stat = some_stat();
  frame = &frames[frame_count++];
  body = begin_frame(frame, "LOCATED");
  packbuf_i_located_write(&body, &located);
  end_frame(frame, &body, PACKBUF_I_LOCATED, 1, 8, "");
  frame = &frames[frame_count++];
  body = begin_frame(frame, "RELEASE");
  packbuf_i_wire_give32(&body, 3);
  end_frame(frame, &body, PACKBUF_I_RELEASE, 1, 8, "");
}

/* ---- the specification ---- */

static void print_frames(void) {
  for (unsigned i = 0; i < frame_count; i++) {
    const made *frame = &frames[i];
    printf("```hex %s\n", frame->name);
    for (size_t at = 0; at < frame->size; at++) {
      const size_t in = at < 40 ? at : at - 40; /* the header has lines of its own */
      printf("%02x", frame->bytes[at]);
      printf("%s", at + 1 == frame->size || at + 1 == 40 || in % 32 == 31 ? "\n" : in % 4 == 3 ? "  " : " ");
    }
    printf("```\n");
  }
}

static int hex_digit(int c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static void test_specification(const char *path) {
  char line[512], name[64] = "";
  uint8_t bytes[1024];
  size_t size = 0;
  unsigned seen = 0;
  FILE *file = fopen(path, "r");
  if (!tap_ok(file != NULL, "%s is there", path)) return;
  while (fgets(line, sizeof line, file)) {
    if (!name[0]) {
      if (strncmp(line, "```hex ", 7) == 0) sscanf(line + 7, "%60s", name), size = 0;
    } else if (strncmp(line, "```", 3) == 0) {
      const made *frame = NULL;
      for (unsigned i = 0; i < frame_count; i++)
        if (strcmp(frames[i].name, name) == 0) frame = &frames[i];
      tap_ok(frame && frame->size == size && memcmp(frame->bytes, bytes, size) == 0,
             "%s: the worked frame is what the library writes", name);
      seen++;
      name[0] = 0;
    } else {
      for (const char *c = line; *c; c++) {
        const int high = hex_digit(c[0]), low = high >= 0 ? hex_digit(c[1]) : -1;
        if (low >= 0 && size < sizeof bytes) bytes[size++] = (uint8_t)(high << 4 | low), c++;
      }
    }
  }
  fclose(file);
  tap_ok(seen == frame_count, "the specification has all %u worked frames", frame_count);
}

/* ---- read back ---- */

/* Reads a body with what reads it. NULL, or why not. */
static const char *read_body(const packbuf_i_frame *frame, const uint8_t *body) {
  union {
    packbuf_i_hello hello;
    packbuf_i_welcome welcome;
    packbuf_i_list_ask list;
    packbuf_i_bye bye;
    packbuf_i_pairing pairing;
    packbuf_i_located located;
  } u;
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  uint64_t a, b;
  uint16_t index;
  const char *why = NULL;
  switch (frame->type) {
    case PACKBUF_I_HELLO: return packbuf_i_hello_read(frame, body, &u.hello);
    case PACKBUF_I_WELCOME: return packbuf_i_welcome_read(frame, body, &u.welcome);
    case PACKBUF_I_PUT:
    case PACKBUF_I_GET:
    case PACKBUF_I_STAT:
    case PACKBUF_I_REMOVE: return packbuf_i_request_check(frame, body, &a, &b);
    case PACKBUF_I_DATA: return packbuf_i_data_read(frame, body, &index, &a);
    case PACKBUF_I_RESULT:
      for (unsigned i = 0; !why && i < frame->items; i++) {
        packbuf_i_result result;
        why = packbuf_i_result_read(&reader, &result);
      }
      return why;
    case PACKBUF_I_LIST: return packbuf_i_list_read(frame, body, &u.list);
    case PACKBUF_I_LISTED: {
      packbuf_i_listing listing;
      why = packbuf_i_listing_read(&reader, &listing);
      for (unsigned i = 0; !why && i < frame->items; i++) {
        packbuf_listed listed;
        why = packbuf_i_listed_read(&reader, &listed);
      }
      return why;
    }
    case PACKBUF_I_BYE: return packbuf_i_bye_read(frame, body, &u.bye);
    case PACKBUF_I_PAIRING: return packbuf_i_pairing_read(frame, body, &u.pairing);
    case PACKBUF_I_LOCATED:
      for (unsigned i = 0; !why && i < frame->items; i++) why = packbuf_i_located_read(&reader, &u.located);
      return why;
    case PACKBUF_I_RELEASE:
      for (unsigned i = 0; i < frame->items; i++) (void)packbuf_i_wire_take32(&reader);
      return reader.ok ? NULL : packbuf_i_frame_short;
    case PACKBUF_I_GRANT:
      for (unsigned i = 0; i < frame->items; i++) (void)packbuf_i_wire_take16(&reader);
      return reader.ok ? NULL : packbuf_i_frame_short;
    case PACKBUF_I_PROOF:
    case PACKBUF_I_PROVEN: (void)packbuf_i_wire_take(&reader, 32); return reader.ok ? NULL : packbuf_i_frame_short;
    default: return NULL;
  }
}

static const made *frame_of(const char *name) {
  for (unsigned i = 0; i < frame_count; i++)
    if (strcmp(frames[i].name, name) == 0) return &frames[i];
  return NULL;
}

static void test_values(void) {
  packbuf_i_frame frame;
  packbuf_i_asked asked;
  packbuf_i_wire_from reader;
  packbuf_i_result result;
  packbuf_i_hello hello;
  packbuf_i_bye bye;
  const packbuf_stat stat = some_stat();
  const made *put = frame_of("PUT"), *get = frame_of("GET"), *answer = frame_of("RESULT"), *data = frame_of("DATA");
  uint64_t offset, keys, ranges;
  uint16_t index;
  begin("values");
  expect(!packbuf_i_frame_read(put->bytes, &frame) && frame.items == 2 && frame.payload == 5 && frame.request == 1,
         "PUT's header");
  reader = packbuf_i_frame_reader(&frame, put->bytes + 40);
  expect(packbuf_i_wire_take64(&reader) == 2000000000u, "time left");
  expect(!packbuf_i_asked_read(&reader, frame.type, &asked) && asked.size == 8192 && asked.ttl_ms == 60000 &&
             asked.flags == 1 && !asked.eager && asked.kind == 1 && asked.head_length == 640 &&
             asked.head_checksum == 0x01020304 && asked.key_size == 11 && memcmp(asked.key, "job7/step12", 11) == 0 &&
             memcmp(asked.fingerprint, stat.fingerprint, 16) == 0,
         "PUT's first item");
  expect(!packbuf_i_asked_read(&reader, frame.type, &asked) && asked.size == 5 && asked.eager && asked.key_size == 4,
         "PUT's second item");
  expect(!packbuf_i_request_check(&frame, put->bytes + 40, &keys, &ranges) && keys == 15 && ranges == 0,
         "PUT as a whole");
  expect(!packbuf_i_frame_read(get->bytes, &frame), "GET's header");
  reader = packbuf_i_frame_reader(&frame, get->bytes + 40);
  expect(packbuf_i_wire_take64(&reader) == UINT64_MAX, "time left");
  expect(!packbuf_i_asked_read(&reader, frame.type, &asked) && asked.generation == stat.generation && asked.ranged &&
             asked.range_count == 2 && asked.capacity == UINT64_MAX &&
             packbuf_i_asked_range(asked.ranges, 1).offset == 4096 &&
             packbuf_i_asked_range(asked.ranges, 1).length == 100,
         "GET's first item");
  expect(!packbuf_i_asked_read(&reader, frame.type, &asked) && !asked.generation && !asked.ranged, "GET's second item");
  expect(!packbuf_i_frame_read(answer->bytes, &frame), "RESULT's header");
  reader = packbuf_i_frame_reader(&frame, answer->bytes + 40);
  expect(!packbuf_i_result_read(&reader, &result) && result.follows == 740 && !result.status &&
             memcmp(&result.stat, &stat, sizeof stat) == 0,
         "RESULT's first item");
  expect(!packbuf_i_result_read(&reader, &result) && result.index == 1 && result.status == PACKBUF_NOT_FOUND,
         "RESULT's second item");
  expect(!packbuf_i_frame_read(data->bytes, &frame) &&
             !packbuf_i_data_read(&frame, data->bytes + 40, &index, &offset) && index == 0 && offset == 8184 &&
             frame.payload == 8,
         "DATA");
  expect(!packbuf_i_frame_read(frame_of("HELLO")->bytes, &frame) &&
             !packbuf_i_hello_read(&frame, frame_of("HELLO")->bytes + 40, &hello) &&
             strcmp(hello.name, "actor-7") == 0 && hello.quota == 1 << 30,
         "HELLO");
  expect(!packbuf_i_frame_read(frame_of("BYE")->bytes, &frame) &&
             !packbuf_i_bye_read(&frame, frame_of("BYE")->bytes + 40, &bye) && bye.status == PACKBUF_DENIED &&
             strcmp(bye.text, "wrong secret") == 0,
         "BYE");
  {
    packbuf_i_pairing pairing;
    packbuf_i_located located;
    expect(!packbuf_i_frame_read(frame_of("QP")->bytes, &frame) &&
               !packbuf_i_pairing_read(&frame, frame_of("QP")->bytes + 40, &pairing) && pairing.count == 2 &&
               pairing.numbers[1] == 18 && pairing.psns[1] == 0xABCDEE && pairing.mtu == 5 && pairing.reads == 16 &&
               pairing.address == 0x7F0000002000 && pairing.rkey == 0x1234 && pairing.words == 512 &&
               pairing.gid[15] == 13,
           "QP");
    expect(!packbuf_i_frame_read(frame_of("LOCATED")->bytes, &frame), "LOCATED's header");
    reader = packbuf_i_frame_reader(&frame, frame_of("LOCATED")->bytes + 40);
    expect(!packbuf_i_located_read(&reader, &located) && located.word == 3 && located.rkey == 0x9ABC &&
               located.address == 0x7F0000100000 && memcmp(&located.stat, &stat, sizeof stat) == 0,
           "LOCATED");
    expect(!packbuf_i_frame_read(frame_of("PUT-READ")->bytes, &frame), "PUT's header");
    reader = packbuf_i_frame_reader(&frame, frame_of("PUT-READ")->bytes + 40);
    (void)packbuf_i_wire_take64(&reader);
    expect(!packbuf_i_asked_read(&reader, frame.type, &asked) && asked.remote && !asked.eager && asked.size == 8192 &&
               asked.address == 0x10001000 && asked.rkey == 0x5678,
           "PUT's item that is read");
  }
  verdict("what was written is read back");
}

/* Puts both checksums of a frame right. */
static void seal(uint8_t *bytes, size_t body) {
  packbuf_i_store32(bytes + 16, (uint32_t)body);
  packbuf_i_store32(bytes + 20, packbuf_i_wire_crc(bytes + 40, body));
  packbuf_i_store32(bytes + 36, packbuf_i_wire_crc(bytes, 36));
}

static void test_damage(void) {
  begin("damage");
  for (unsigned i = 0; i < frame_count; i++) {
    const made *whole = &frames[i];
    const size_t body = whole->size - whole->payload - 40;
    packbuf_i_frame frame;
    for (size_t bit = 0; bit < 8 * 40; bit++) {
      uint8_t header[40];
      memcpy(header, whole->bytes, 40);
      header[bit / 8] ^= (uint8_t)(1u << bit % 8);
      expect(packbuf_i_frame_read(header, &frame) != NULL, "%s: bit %d of the header passes", whole->name, (int)bit);
    }
    for (size_t size = 0; size <= body + 3; size++) { /* cut, and lengthened: what is behind the known is ignored */
      uint8_t *copy = (uint8_t *)calloc(1, 40 + size);
      const char *why;
      memcpy(copy, whole->bytes, 40 + (size < body ? size : body));
      seal(copy, size);
      expect(!packbuf_i_frame_read(copy, &frame), "%s: header of %d bytes", whole->name, (int)size);
      why = read_body(&frame, copy + 40);
      expect(size < body ? why != NULL : why == NULL, "%s: a body of %d bytes of %d: %s", whole->name, (int)size,
             (int)body, why ? why : "good");
      free(copy);
    }
  }
  verdict("headers with a flipped bit and bodies that are too short are refused, longer ones are not");
}

/* Changes one number of a worked frame; whether it is refused. */
static int refused(const char *name, size_t at, unsigned bytes, uint64_t number) {
  const made *whole = frame_of(name);
  const size_t body = whole->size - whole->payload - 40;
  uint8_t copy[1024];
  packbuf_i_frame frame;
  const char *why;
  memcpy(copy, whole->bytes, whole->size);
  for (unsigned i = 0; i < bytes; i++) copy[at + i] = (uint8_t)(number >> 8 * i);
  packbuf_i_store32(copy + 20, packbuf_i_wire_crc(copy + 40, body));
  packbuf_i_store32(copy + 36, packbuf_i_wire_crc(copy, 36));
  why = packbuf_i_frame_read(copy, &frame);
  if (!why && frame.body > body) return 0;
  if (!why) why = read_body(&frame, copy + 40);
  return why != NULL;
}

static void test_numbers(void) {
  static const struct {
    const char *name;
    size_t at;
    unsigned bytes;
    uint64_t number;
    int bad;
  } all[] = {
      {"PING", 0, 4, 0x32544250u, 1},
      {"PING", 4, 1, 0, 1},
      {"PING", 4, 1, 14, 1},
      {"PING", 4, 1, 15, 1},
      {"PING", 4, 1, 16, 1},
      {"PING", 4, 1, 21, 1},
      {"PING", 4, 1, 19, 0},
      {"PING", 5, 1, 1, 1},
      {"PING", 5, 1, 128, 1},
      {"PING", 6, 2, 1, 1},
      {"PING", 24, 8, 1, 1},
      {"PING", 32, 4, 1, 1},
      {"PING", 16, 4, 1048577, 1},
      {"PUT", 6, 2, 0, 1},
      {"PUT", 6, 2, 4097, 1},
      {"PUT", 24, 8, 6, 1},
      {"PUT", 24, 8, 1048577, 1},
      {"DATA", 24, 8, 0, 1},
      {"DATA", 24, 8, 1ull << 63, 1},
      {"DATA", 6, 2, 2, 1},
      {"DATA", 48, 8, UINT64_MAX, 1},
      {"DATA", 42, 2, 1, 1},
      {"DATA", 44, 4, 1, 1},
      {"GRANT", 6, 2, 2, 1},
      {"HELLO", 40, 2, 0, 1},
      {"HELLO", 40, 2, 2, 1},
      {"HELLO", 104, 1, 8, 1},
      {"HELLO", 105, 1, 10, 1},
      {"WELCOME", 40, 2, 2, 1},
      {"WELCOME", 42, 1, 2, 1},
      {"WELCOME", 43, 1, 1, 1},
      {"WELCOME", 44, 4, 2, 1},
      {"WELCOME", 96, 4, 0, 1},
      {"WELCOME", 96, 4, 4097, 1},
      {"WELCOME", 100, 4, 0, 1},
      {"WELCOME", 104, 4, 4194305, 1},
      {"WELCOME", 104, 4, 4194304, 0},
      {"WELCOME", 108, 4, 4194305, 1},
      {"WELCOME", 108, 4, 4194304, 0},
      {"PUT", 48, 8, 1ull << 63, 1},
      {"PUT", 56, 8, 8193, 1},
      {"PUT", 56, 8, 8192, 0},
      {"PUT", 68, 4, 3, 1},
      {"PUT", 76, 1, 3, 1},
      {"PUT", 77, 1, 1, 1},
      {"PUT", 77, 1, 2, 1},
      {"PUT", 78, 1, 1, 1},
      {"PUT", 79, 1, 0, 1},
      {"PUT", 96, 1, 0, 1},
      {"PUT", 96, 1, ' ', 1},
      {"PUT", 96, 1, 0x7f, 1},
      {"PUT", 96, 1, '!', 0},
      {"GET", 64, 4, 65537, 1},
      {"GET", 64, 4, 1000, 1},
      {"GET", 68, 2, 1, 1},
      {"GET", 70, 1, 2, 1},
      {"GET", 70, 1, 0, 1},
      {"GET", 71, 1, 0, 1},
      {"STAT", 56, 4, 2, 1},
      {"REMOVE", 56, 4, 1, 1},
      {"REMOVE", 60, 2, 1, 1},
      {"REMOVE", 62, 1, 1, 1},
      {"RESULT", 40, 2, 4096, 1},
      {"RESULT", 42, 2, 3, 1},
      {"RESULT", 44, 4, 1, 1},
      {"RESULT", 48, 8, 1ull << 63, 1},
      {"RESULT", 64, 8, 639, 1},
      {"RESULT", 109, 1, 1, 1},
      {"RESULT", 110, 2, 1, 1},
      {"LIST", 52, 2, 2, 1},
      {"LIST", 54, 1, 1, 1},
      {"LIST", 56, 1, 0, 1},
      {"LISTED", 42, 2, 1, 1},
      {"LISTED", 6, 2, 4097, 1},
      {"BYE", 42, 2, 256, 1},
      {"BYE", 44, 1, 10, 1},
      {"BYE", 44, 1, 0xC3, 1},
      {"WELCOME", 44, 4, 1, 0},
      {"PUT", 77, 1, 3, 1},
      {"QP", 6, 2, 0, 1},
      {"QP", 6, 2, 9, 1},
      {"QP", 24, 8, 1, 1},
      {"QP", 40, 2, 3, 1},
      {"QP", 44, 1, 0, 1},
      {"QP", 44, 1, 6, 1},
      {"QP", 45, 1, 0, 1},
      {"QP", 46, 2, 1, 1},
      {"QP", 76, 4, 4097, 1},
      {"QP", 76, 4, 4096, 0},
      {"QP", 64, 8, UINT64_MAX, 1},
      {"QP", 83, 1, 1, 1},
      {"QP", 87, 1, 1, 1},
      {"LOCATED", 6, 2, 0, 1},
      {"LOCATED", 40, 2, 4096, 1},
      {"LOCATED", 42, 2, 1, 1},
      {"LOCATED", 60, 4, 1, 1},
      {"LOCATED", 48, 8, UINT64_MAX, 1},
      {"LOCATED", 72, 8, 1ull << 63, 1},
      {"RELEASE", 6, 2, 0, 1},
      {"RELEASE", 6, 2, 2, 1},
      {"PUT-READ", 48, 8, 0, 1},
      {"PUT-READ", 107, 8, UINT64_MAX, 1},
  };
  begin("numbers");
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    expect(refused(all[i].name, all[i].at, all[i].bytes, all[i].number) == all[i].bad, "%s with %llx at %d",
           all[i].name, (unsigned long long)all[i].number, (int)all[i].at);
  verdict("each number out of its range is refused");
}

/* ---- streams ---- */

typedef struct stream {
  unsigned frames;
  size_t payload, room, drop;
  uint8_t bytes[64];
} stream;

static const char *stream_frame(void *context, const packbuf_i_frame *frame, const uint8_t *body) {
  stream *s = (stream *)context;
  s->frames++;
  return read_body(frame, body);
}

static uint8_t *stream_place(void *context, uint64_t *size) {
  stream *s = (stream *)context;
  if (*size > s->room) *size = s->room;
  return s->drop ? NULL : s->bytes + s->payload;
}

static const char *stream_placed(void *context, uint64_t size) {
  ((stream *)context)->payload += (size_t)size;
  return NULL;
}

static const packbuf_i_intake_taker stream_taker = {stream_frame, stream_place, stream_placed};

static void test_streams(void) {
  uint8_t all[8192];
  size_t size = 0;
  begin("streams");
  for (unsigned i = 0; i < frame_count; i++) {
    memcpy(all + size, frames[i].bytes, frames[i].size);
    size += frames[i].size;
  }
  for (size_t piece = 1; piece <= size; piece += piece < 200 ? 1 : 97) {
    packbuf_i_intake intake;
    stream s;
    const char *why = NULL;
    memset(&intake, 0, sizeof intake);
    memset(&s, 0, sizeof s);
    s.room = 1 + piece % 9;
    s.drop = piece % 2;
    intake.taker = &stream_taker;
    intake.context = &s;
    intake.most_body = PACKBUF_I_FRAME_BODY;
    for (size_t at = 0; !why && at < size; at += piece)
      why = packbuf_i_intake_feed(&intake, all + at, size - at < piece ? size - at : piece);
    expect(!why && s.frames == frame_count && s.payload == 13, "pieces of %d: %s", (int)piece,
           why ? why : "cut wrongly");
    expect(s.drop || memcmp(s.bytes, "hellothe end.", 13) == 0, "pieces of %d: payload", (int)piece);
    packbuf_i_intake_end(&intake);
  }
  for (unsigned most = 0; most < 2; most++) { /* a body that is longer than may be now */
    packbuf_i_intake intake;
    stream s;
    memset(&intake, 0, sizeof intake);
    memset(&s, 0, sizeof s);
    intake.taker = &stream_taker;
    intake.context = &s;
    intake.most_body = (uint32_t)(frames[0].size - 40 - most);
    expect((packbuf_i_intake_feed(&intake, frames[0].bytes, frames[0].size) != NULL) == (most == 1),
           "a body of one byte more than may be");
    packbuf_i_intake_end(&intake);
  }
  { /* a body whose checksum is wrong */
    packbuf_i_intake intake;
    stream s;
    memset(&intake, 0, sizeof intake);
    memset(&s, 0, sizeof s);
    memcpy(all, frames[0].bytes, frames[0].size);
    all[50] ^= 1;
    intake.taker = &stream_taker;
    intake.context = &s;
    intake.most_body = PACKBUF_I_FRAME_BODY;
    expect(packbuf_i_intake_feed(&intake, all, frames[0].size) != NULL && !s.frames, "a flipped bit in a body");
    packbuf_i_intake_end(&intake);
  }
  verdict("streams are cut into frames, whatever the pieces");
}

int main(int argc, char **argv) {
  greeting_frames();
  request_frames();
  answer_frames();
  verbs_frames();
  if (argc > 1 && strcmp(argv[1], "--write") == 0) {
    print_frames();
    return 0;
  }
  test_specification(argc > 1 ? argv[1] : "spec/transport.md");
  test_values();
  test_damage();
  test_numbers();
  test_streams();
  return tap_plan_done();
}
