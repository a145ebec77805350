/* transport/frames.c: the frames of the protocol (spec/transport.md): headers and bodies written and parsed, every
 * number checked, and a stream of bytes cut into frames. Nothing here knows a socket: bytes in, bytes out.
 * May use: base, crc32c; system (heap), ref, hash. Must not know: sockets, stores, who is server and who client. */

#define PACKBUF_I_FRAME_MAGIC 0x31544250u /* "PBT1" */
#define PACKBUF_I_FRAME_HEADER 40u
#define PACKBUF_I_FRAME_BODY 1048576u /* the largest body */
#define PACKBUF_I_FRAME_ITEMS 4096u
#define PACKBUF_I_FRAME_GREETING 1024u /* the largest body before both sides know each other */
#define PACKBUF_I_EAGER_ITEM 4194304u  /* an item of a put may follow at once up to this size */
#define PACKBUF_I_EAGER_ALL 4194304u   /* and all of a frame together */
#define PACKBUF_I_FRAME_VERSION 1u
#define PACKBUF_I_NONCE 32u
#define PACKBUF_I_FEATURE_VERBS 1u
#define PACKBUF_I_PAIRS_MOST 8u /* queue pairs of a connection */
#define PACKBUF_I_SMALL 4096u /* with queue pairs: items up to this size still travel in frames */

enum {
  PACKBUF_I_HELLO = 1,
  PACKBUF_I_WELCOME = 2,
  PACKBUF_I_PROOF = 3,
  PACKBUF_I_PROVEN = 4, /* the server's proof */
  PACKBUF_I_PUT = 5,
  PACKBUF_I_GRANT = 6,
  PACKBUF_I_DATA = 7,
  PACKBUF_I_GET = 8,
  PACKBUF_I_STAT = 9,
  PACKBUF_I_REMOVE = 10,
  PACKBUF_I_RESULT = 11,
  PACKBUF_I_LIST = 12,
  PACKBUF_I_LISTED = 13,
  PACKBUF_I_PAIRING = 14,
  PACKBUF_I_LOCATED = 15,
  PACKBUF_I_RELEASE = 16,
  PACKBUF_I_CANCEL = 17,
  PACKBUF_I_PING = 18,
  PACKBUF_I_PONG = 19,
  PACKBUF_I_BYE = 20
};

typedef struct packbuf_i_frame {
  uint8_t type;
  uint16_t items;
  uint32_t body, body_checksum;
  uint64_t request, payload;
} packbuf_i_frame;

static uint32_t packbuf_i_wire_crc(const void *data, size_t size) {
  return packbuf_i_crc_kernel_best()->crc(0, data, size);
}

/* ---- bytes, one number after the other ---- */

typedef struct packbuf_i_wire_from {
  const uint8_t *at, *end;
  int ok; /* 0: it went past the end; what was read then is 0 */
} packbuf_i_wire_from;

static const uint8_t *packbuf_i_wire_take(packbuf_i_wire_from *reader, size_t size) {
  const uint8_t *bytes = reader->at;
  if (!reader->ok || (size_t)(reader->end - reader->at) < size) {
    reader->ok = 0;
    return NULL;
  }
  reader->at += size;
  return bytes;
}

static uint8_t packbuf_i_wire_take8(packbuf_i_wire_from *reader) {
  const uint8_t *bytes = packbuf_i_wire_take(reader, 1);
  return bytes ? *bytes : (uint8_t)0;
}

static uint16_t packbuf_i_wire_take16(packbuf_i_wire_from *reader) {
  const uint8_t *bytes = packbuf_i_wire_take(reader, 2);
  return bytes ? packbuf_i_load16(bytes) : (uint16_t)0;
}

static uint32_t packbuf_i_wire_take32(packbuf_i_wire_from *reader) {
  const uint8_t *bytes = packbuf_i_wire_take(reader, 4);
  return bytes ? packbuf_i_load32(bytes) : 0;
}

static uint64_t packbuf_i_wire_take64(packbuf_i_wire_from *reader) {
  const uint8_t *bytes = packbuf_i_wire_take(reader, 8);
  return bytes ? packbuf_i_load64(bytes) : 0;
}

static void packbuf_i_wire_take_bytes(packbuf_i_wire_from *reader, void *to, size_t size) {
  const uint8_t *bytes = packbuf_i_wire_take(reader, size);
  if (bytes) memcpy(to, bytes, size);
  else memset(to, 0, size);
}

typedef struct packbuf_i_wire_to {
  uint8_t *at, *end;
  int ok; /* 0: there was no room */
} packbuf_i_wire_to;

static void packbuf_i_wire_give(packbuf_i_wire_to *writer, const void *bytes, size_t size) {
  if (!writer->ok || (size_t)(writer->end - writer->at) < size) {
    writer->ok = 0;
    return;
  }
  if (size) memcpy(writer->at, bytes, size);
  writer->at += size;
}

static void packbuf_i_wire_give8(packbuf_i_wire_to *writer, uint8_t number) { packbuf_i_wire_give(writer, &number, 1); }

static void packbuf_i_wire_give16(packbuf_i_wire_to *writer, uint16_t number) {
  uint8_t bytes[2];
  packbuf_i_store16(bytes, number);
  packbuf_i_wire_give(writer, bytes, 2);
}

static void packbuf_i_wire_give32(packbuf_i_wire_to *writer, uint32_t number) {
  uint8_t bytes[4];
  packbuf_i_store32(bytes, number);
  packbuf_i_wire_give(writer, bytes, 4);
}

static void packbuf_i_wire_give64(packbuf_i_wire_to *writer, uint64_t number) {
  uint8_t bytes[8];
  packbuf_i_store64(bytes, number);
  packbuf_i_wire_give(writer, bytes, 8);
}

/* ---- headers ---- */

/* A writer of the body of a frame that begins at `frame`. */
static packbuf_i_wire_to packbuf_i_frame_body(uint8_t *frame, size_t capacity) {
  packbuf_i_wire_to writer;
  writer.ok = capacity >= PACKBUF_I_FRAME_HEADER;
  writer.at = frame + (writer.ok ? PACKBUF_I_FRAME_HEADER : 0);
  writer.end = frame + capacity;
  return writer;
}

/* Puts the header before the body that was written; the length of both, 0 when there was no room for the body. */
static size_t packbuf_i_frame_end(uint8_t *frame, const packbuf_i_wire_to *body, unsigned type, uint64_t items,
                                  uint64_t request, uint64_t payload) {
  const size_t size = body->ok ? (size_t)(body->at - frame) - PACKBUF_I_FRAME_HEADER : 0;
  if (!body->ok || size > PACKBUF_I_FRAME_BODY) return 0;
  packbuf_i_store32(frame, PACKBUF_I_FRAME_MAGIC);
  frame[4] = (uint8_t)type;
  frame[5] = 0;
  packbuf_i_store16(frame + 6, (uint16_t)items);
  packbuf_i_store64(frame + 8, request);
  packbuf_i_store32(frame + 16, (uint32_t)size);
  packbuf_i_store32(frame + 20, packbuf_i_wire_crc(frame + PACKBUF_I_FRAME_HEADER, size));
  packbuf_i_store64(frame + 24, payload);
  packbuf_i_store32(frame + 32, 0);
  packbuf_i_store32(frame + 36, packbuf_i_wire_crc(frame, 36));
  return PACKBUF_I_FRAME_HEADER + size;
}

/* Whether a frame of this type may have so many items, and so much payload. */
static int packbuf_i_frame_counts(const packbuf_i_frame *frame) {
  switch (frame->type) {
    case PACKBUF_I_PUT:
      return frame->items && frame->items <= PACKBUF_I_FRAME_ITEMS && frame->payload <= PACKBUF_I_EAGER_ALL;
    case PACKBUF_I_DATA: return frame->items == 1 && frame->payload && frame->payload <= (uint64_t)INT64_MAX;
    case PACKBUF_I_GRANT:
    case PACKBUF_I_GET:
    case PACKBUF_I_STAT:
    case PACKBUF_I_REMOVE:
    case PACKBUF_I_LOCATED:
    case PACKBUF_I_RELEASE:
    case PACKBUF_I_RESULT: return frame->items && frame->items <= PACKBUF_I_FRAME_ITEMS && !frame->payload;
    case PACKBUF_I_PAIRING: return frame->items <= PACKBUF_I_PAIRS_MOST && !frame->payload;
    case PACKBUF_I_LISTED: return frame->items <= PACKBUF_I_FRAME_ITEMS && !frame->payload;
    default: return !frame->items && !frame->payload;
  }
}

/* Reads the 40 bytes of a header. NULL, or what is wrong with it. */
static const char *packbuf_i_frame_read(const uint8_t *bytes, packbuf_i_frame *frame) {
  if (packbuf_i_load32(bytes) != PACKBUF_I_FRAME_MAGIC) return "not a frame of this protocol";
  if (packbuf_i_load32(bytes + 36) != packbuf_i_wire_crc(bytes, 36)) return "the header's checksum does not match";
  frame->type = bytes[4];
  frame->items = packbuf_i_load16(bytes + 6);
  frame->request = packbuf_i_load64(bytes + 8);
  frame->body = packbuf_i_load32(bytes + 16);
  frame->body_checksum = packbuf_i_load32(bytes + 20);
  frame->payload = packbuf_i_load64(bytes + 24);
  if (frame->type < PACKBUF_I_HELLO || frame->type > PACKBUF_I_BYE) return "a frame of an unknown type";
  if (bytes[5]) return "a frame with unknown flags";
  if (packbuf_i_load32(bytes + 32)) return "bytes that must be zero are not";
  if (frame->body > PACKBUF_I_FRAME_BODY) return "a body is too long";
  if (!packbuf_i_frame_counts(frame)) return "a frame's number of items, or its payload, is wrong";
  return NULL;
}

static const char *const packbuf_i_frame_short = "a body is too short";
static const char packbuf_i_frame_memory[] = "out of memory"; /* not the other side's fault: told by its address */
static const char *const packbuf_i_frame_zero = "bytes that must be zero are not";

static packbuf_i_wire_from packbuf_i_frame_reader(const packbuf_i_frame *frame, const uint8_t *body) {
  packbuf_i_wire_from reader;
  reader.at = body;
  reader.end = body + frame->body;
  reader.ok = 1;
  return reader;
}

/* ---- greeting ---- */

typedef struct packbuf_i_hello {
  uint16_t least, most; /* versions */
  uint32_t features;
  uint8_t nonce[PACKBUF_I_NONCE], session[16]; /* session: the same for all connections of one handle */
  uint64_t quota;                              /* of the session's objects; 0: no bound */
  char name[256];
} packbuf_i_hello;

static void packbuf_i_hello_write(packbuf_i_wire_to *writer, const packbuf_i_hello *hello) {
  const size_t name = strlen(hello->name);
  packbuf_i_wire_give16(writer, hello->least);
  packbuf_i_wire_give16(writer, hello->most);
  packbuf_i_wire_give32(writer, hello->features);
  packbuf_i_wire_give(writer, hello->nonce, sizeof hello->nonce);
  packbuf_i_wire_give(writer, hello->session, sizeof hello->session);
  packbuf_i_wire_give64(writer, hello->quota);
  packbuf_i_wire_give8(writer, (uint8_t)name);
  packbuf_i_wire_give(writer, hello->name, name);
}

static const char *packbuf_i_hello_read(const packbuf_i_frame *frame, const uint8_t *body, packbuf_i_hello *hello) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  size_t name;
  memset(hello, 0, sizeof *hello);
  hello->least = packbuf_i_wire_take16(&reader);
  hello->most = packbuf_i_wire_take16(&reader);
  hello->features = packbuf_i_wire_take32(&reader);
  packbuf_i_wire_take_bytes(&reader, hello->nonce, sizeof hello->nonce);
  packbuf_i_wire_take_bytes(&reader, hello->session, sizeof hello->session);
  hello->quota = packbuf_i_wire_take64(&reader);
  name = packbuf_i_wire_take8(&reader);
  packbuf_i_wire_take_bytes(&reader, hello->name, name);
  if (!reader.ok) return packbuf_i_frame_short;
  if (!hello->least || hello->least > hello->most) return "no range of versions";
  for (size_t i = 0; i < name; i++)
    if ((uint8_t)hello->name[i] < 0x20 || hello->name[i] == 0x7f) return "a name with control characters";
  return NULL;
}

typedef struct packbuf_i_welcome {
  uint16_t version;
  uint8_t proof; /* 1: the client is asked to prove that it knows the secret */
  uint32_t features, most_items, most_requests, eager_item, eager_all, capabilities;
  uint8_t nonce[PACKBUF_I_NONCE], server[16]; /* server: random, new with each start */
} packbuf_i_welcome;

static void packbuf_i_welcome_write(packbuf_i_wire_to *writer, const packbuf_i_welcome *welcome) {
  packbuf_i_wire_give16(writer, welcome->version);
  packbuf_i_wire_give8(writer, welcome->proof);
  packbuf_i_wire_give8(writer, 0);
  packbuf_i_wire_give32(writer, welcome->features);
  packbuf_i_wire_give(writer, welcome->nonce, sizeof welcome->nonce);
  packbuf_i_wire_give(writer, welcome->server, sizeof welcome->server);
  packbuf_i_wire_give32(writer, welcome->most_items);
  packbuf_i_wire_give32(writer, welcome->most_requests);
  packbuf_i_wire_give32(writer, welcome->eager_item);
  packbuf_i_wire_give32(writer, welcome->eager_all);
  packbuf_i_wire_give32(writer, welcome->capabilities);
}

static const char *packbuf_i_welcome_read(const packbuf_i_frame *frame, const uint8_t *body,
                                          packbuf_i_welcome *welcome) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  unsigned zero;
  welcome->version = packbuf_i_wire_take16(&reader);
  welcome->proof = packbuf_i_wire_take8(&reader);
  zero = packbuf_i_wire_take8(&reader);
  welcome->features = packbuf_i_wire_take32(&reader);
  packbuf_i_wire_take_bytes(&reader, welcome->nonce, sizeof welcome->nonce);
  packbuf_i_wire_take_bytes(&reader, welcome->server, sizeof welcome->server);
  welcome->most_items = packbuf_i_wire_take32(&reader);
  welcome->most_requests = packbuf_i_wire_take32(&reader);
  welcome->eager_item = packbuf_i_wire_take32(&reader);
  welcome->eager_all = packbuf_i_wire_take32(&reader);
  welcome->capabilities = packbuf_i_wire_take32(&reader);
  if (!reader.ok) return packbuf_i_frame_short;
  if (zero) return packbuf_i_frame_zero;
  if (welcome->version != PACKBUF_I_FRAME_VERSION) return "a version that was not offered";
  if (welcome->proof > 1 || welcome->features & ~PACKBUF_I_FEATURE_VERBS) return "a feature that was not offered";
  if (!welcome->most_items || welcome->most_items > PACKBUF_I_FRAME_ITEMS || !welcome->most_requests ||
      welcome->eager_item > PACKBUF_I_EAGER_ITEM || welcome->eager_all > PACKBUF_I_EAGER_ALL)
    return "a limit of the server is out of range";
  return NULL;
}

/* What a side proves that it knows the secret with. role: 'C' or 'S', so that a proof sent back is none. Both bodies
 * are as they were sent, and have the nonces in them. */
static void packbuf_i_proof_make(const void *secret, size_t secret_size, char role, const uint8_t *hello,
                                 size_t hello_size, const uint8_t *welcome, size_t welcome_size, uint8_t out[32]) {
  packbuf_i_hmac hmac;
  uint8_t sizes[8];
  packbuf_i_store32(sizes, (uint32_t)hello_size);
  packbuf_i_store32(sizes + 4, (uint32_t)welcome_size);
  packbuf_i_hmac_start(&hmac, secret, secret_size);
  packbuf_i_hmac_add(&hmac, &role, 1);
  packbuf_i_hmac_add(&hmac, sizes, sizeof sizes);
  packbuf_i_hmac_add(&hmac, hello, hello_size);
  packbuf_i_hmac_add(&hmac, welcome, welcome_size);
  packbuf_i_hmac_end(&hmac, out);
}

/* ---- requests ---- */

/* How the bytes of a put come. */
enum { PACKBUF_I_WAY_GRANTED, PACKBUF_I_WAY_EAGER, PACKBUF_I_WAY_REMOTE };

/* One item of PUT, GET, STAT or REMOVE. Pointers lead into the body. */
typedef struct packbuf_i_asked {
  const char *key; /* key_size bytes, no NUL */
  uint8_t key_size, kind, eager, ranged, remote; /* remote: the server reads it itself: address, rkey */
  uint32_t flags, ttl_ms, head_checksum, range_count, rkey;
  uint64_t address;
  uint64_t generation, size, capacity, head_length; /* size: put; capacity: get, UINT64_MAX: no bound */
  const uint8_t *fingerprint, *ranges;              /* PACKBUF_FINGERPRINT bytes; 16 bytes for each range */
} packbuf_i_asked;

static packbuf_range packbuf_i_asked_range(const uint8_t *ranges, uint64_t index) {
  packbuf_range range;
  range.offset = packbuf_i_load64(ranges + 16 * index);
  range.length = packbuf_i_load64(ranges + 16 * index + 8);
  return range;
}

static const char *packbuf_i_key_read(packbuf_i_wire_from *reader, packbuf_i_asked *asked) {
  const uint8_t *key = packbuf_i_wire_take(reader, asked->key_size);
  asked->key = (const char *)key;
  if (!key) return packbuf_i_frame_short;
  if (!asked->key_size) return "a key is empty";
  for (unsigned i = 0; i < asked->key_size; i++)
    if (key[i] <= 0x20 || key[i] == 0x7f) return "a key with blanks or control characters";
  return NULL;
}

static const char *packbuf_i_put_item_read(packbuf_i_wire_from *reader, packbuf_i_asked *asked) {
  const char *why;
  unsigned way;
  asked->size = packbuf_i_wire_take64(reader);
  asked->head_length = packbuf_i_wire_take64(reader);
  asked->head_checksum = packbuf_i_wire_take32(reader);
  asked->flags = packbuf_i_wire_take32(reader);
  asked->ttl_ms = packbuf_i_wire_take32(reader);
  asked->kind = packbuf_i_wire_take8(reader);
  way = packbuf_i_wire_take8(reader);
  if (packbuf_i_wire_take8(reader)) return packbuf_i_frame_zero;
  asked->key_size = packbuf_i_wire_take8(reader);
  asked->fingerprint = packbuf_i_wire_take(reader, PACKBUF_FINGERPRINT);
  why = packbuf_i_key_read(reader, asked);
  if (why) return why;
  if (asked->size > (uint64_t)INT64_MAX || asked->head_length > asked->size) return "the length of an object is wrong";
  if (asked->flags & ~(uint32_t)PACKBUF_PUT_EVICTABLE) return "unknown flags of an item";
  if (asked->kind > PACKBUF_OBJECT_MANIFEST) return "an object of an unknown kind";
  asked->eager = way == PACKBUF_I_WAY_EAGER;
  asked->remote = way == PACKBUF_I_WAY_REMOTE;
  if (way > PACKBUF_I_WAY_REMOTE || (asked->eager && asked->size > PACKBUF_I_EAGER_ITEM))
    return "an item follows that is too long";
  if (!asked->remote) return NULL;
  asked->address = packbuf_i_wire_take64(reader);
  asked->rkey = packbuf_i_wire_take32(reader);
  if (!reader->ok) return packbuf_i_frame_short;
  if (!asked->size || asked->size > UINT64_MAX - asked->address) return "an item that lies at no address";
  return NULL;
}

static const char *packbuf_i_get_item_read(packbuf_i_wire_from *reader, packbuf_i_asked *asked) {
  const char *why;
  unsigned zero;
  asked->generation = packbuf_i_wire_take64(reader);
  asked->capacity = packbuf_i_wire_take64(reader);
  asked->range_count = packbuf_i_wire_take32(reader);
  zero = packbuf_i_wire_take16(reader);
  asked->ranged = packbuf_i_wire_take8(reader);
  asked->key_size = packbuf_i_wire_take8(reader);
  why = packbuf_i_key_read(reader, asked);
  if (why) return why;
  if (zero) return packbuf_i_frame_zero;
  if (asked->ranged > 1 || (!asked->ranged && asked->range_count)) return "an item's ranges are wrong";
  if (asked->range_count > PACKBUF_I_FRAME_BODY / 16) return packbuf_i_frame_short;
  asked->ranges = packbuf_i_wire_take(reader, (size_t)asked->range_count * 16);
  return asked->ranges ? NULL : packbuf_i_frame_short;
}

static const char *packbuf_i_name_item_read(packbuf_i_wire_from *reader, unsigned type, packbuf_i_asked *asked) {
  const char *why;
  unsigned zero;
  asked->generation = packbuf_i_wire_take64(reader);
  asked->flags = packbuf_i_wire_take32(reader);
  zero = packbuf_i_wire_take16(reader);
  zero |= packbuf_i_wire_take8(reader);
  asked->key_size = packbuf_i_wire_take8(reader);
  why = packbuf_i_key_read(reader, asked);
  if (why) return why;
  if (zero) return packbuf_i_frame_zero;
  if (asked->flags & ~(type == PACKBUF_I_REMOVE ? (uint32_t)PACKBUF_REMOVE_FORCE : 0u))
    return "unknown flags of an item";
  return NULL;
}

/* The next item of a PUT, GET, STAT or REMOVE, whose first 8 bytes (the time that is left) were taken. */
static const char *packbuf_i_asked_read(packbuf_i_wire_from *reader, unsigned type, packbuf_i_asked *asked) {
  memset(asked, 0, sizeof *asked);
  if (type == PACKBUF_I_PUT) return packbuf_i_put_item_read(reader, asked);
  if (type == PACKBUF_I_GET) return packbuf_i_get_item_read(reader, asked);
  return packbuf_i_name_item_read(reader, type, asked);
}

/* Checks a whole PUT, GET, STAT or REMOVE, so that what goes through it again need not. *keys: bytes of all keys,
 * *ranges: number of all ranges. */
static const char *packbuf_i_request_check(const packbuf_i_frame *frame, const uint8_t *body, uint64_t *keys,
                                           uint64_t *ranges) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  uint64_t eager = 0;
  *keys = *ranges = 0;
  (void)packbuf_i_wire_take64(&reader);
  for (unsigned i = 0; i < frame->items; i++) {
    packbuf_i_asked asked;
    const char *why = packbuf_i_asked_read(&reader, frame->type, &asked);
    if (why) return reader.ok ? why : packbuf_i_frame_short;
    *keys += asked.key_size;
    *ranges += asked.range_count;
    if (asked.eager) eager += asked.size;
  }
  return eager == frame->payload ? NULL : "the payload is not what the items say";
}

/* ---- items of a request, written ---- */

/* rkey: where the server may read it, of an item that goes that way. */
static void packbuf_i_put_item_write(packbuf_i_wire_to *writer, const packbuf_item *item, unsigned way, uint32_t rkey) {
  static const uint8_t none[PACKBUF_FINGERPRINT] = {0};
  const packbuf_ref *about = item->about;
  const size_t key = strlen(item->key);
  packbuf_i_wire_give64(writer, item->size);
  packbuf_i_wire_give64(writer, about ? about->head_length : 0);
  packbuf_i_wire_give32(writer, about ? about->head_checksum : 0);
  packbuf_i_wire_give32(writer, item->flags);
  packbuf_i_wire_give32(writer, item->ttl_ms);
  packbuf_i_wire_give8(writer, about ? about->kind : (uint8_t)0);
  packbuf_i_wire_give8(writer, (uint8_t)way);
  packbuf_i_wire_give8(writer, 0);
  packbuf_i_wire_give8(writer, (uint8_t)key);
  packbuf_i_wire_give(writer, about ? about->fingerprint : none, PACKBUF_FINGERPRINT);
  packbuf_i_wire_give(writer, item->key, key);
  if (way != PACKBUF_I_WAY_REMOTE) return;
  packbuf_i_wire_give64(writer, (uint64_t)(uintptr_t)item->from);
  packbuf_i_wire_give32(writer, rkey);
}

static void packbuf_i_get_item_write(packbuf_i_wire_to *writer, const packbuf_item *item) {
  const size_t key = strlen(item->key);
  packbuf_i_wire_give64(writer, item->generation);
  packbuf_i_wire_give64(writer, item->into ? item->capacity : UINT64_MAX);
  packbuf_i_wire_give32(writer, item->ranges ? (uint32_t)item->range_count : 0);
  packbuf_i_wire_give16(writer, 0);
  packbuf_i_wire_give8(writer, item->ranges ? (uint8_t)1 : (uint8_t)0);
  packbuf_i_wire_give8(writer, (uint8_t)key);
  packbuf_i_wire_give(writer, item->key, key);
  for (uint64_t i = 0; item->ranges && i < item->range_count; i++) {
    packbuf_i_wire_give64(writer, item->ranges[i].offset);
    packbuf_i_wire_give64(writer, item->ranges[i].length);
  }
}

static void packbuf_i_name_item_write(packbuf_i_wire_to *writer, const packbuf_item *item, uint32_t flags) {
  const size_t key = strlen(item->key);
  packbuf_i_wire_give64(writer, item->generation);
  packbuf_i_wire_give32(writer, flags);
  packbuf_i_wire_give16(writer, 0);
  packbuf_i_wire_give8(writer, 0);
  packbuf_i_wire_give8(writer, (uint8_t)key);
  packbuf_i_wire_give(writer, item->key, key);
}

/* ---- answers ---- */

static void packbuf_i_stat_write(packbuf_i_wire_to *writer, const packbuf_stat *stat) {
  packbuf_i_wire_give64(writer, stat->generation);
  packbuf_i_wire_give64(writer, stat->length);
  packbuf_i_wire_give64(writer, stat->head_length);
  packbuf_i_wire_give64(writer, stat->age_ms);
  packbuf_i_wire_give64(writer, stat->left_ms);
  packbuf_i_wire_give32(writer, stat->head_checksum);
  packbuf_i_wire_give32(writer, stat->flags);
  packbuf_i_wire_give32(writer, stat->leases);
  packbuf_i_wire_give8(writer, stat->kind);
  packbuf_i_wire_give8(writer, 0);
  packbuf_i_wire_give16(writer, 0);
  packbuf_i_wire_give(writer, stat->fingerprint, PACKBUF_FINGERPRINT);
}

static const char *packbuf_i_stat_read(packbuf_i_wire_from *reader, packbuf_stat *stat) {
  unsigned zero;
  memset(stat, 0, sizeof *stat);
  stat->generation = packbuf_i_wire_take64(reader);
  stat->length = packbuf_i_wire_take64(reader);
  stat->head_length = packbuf_i_wire_take64(reader);
  stat->age_ms = packbuf_i_wire_take64(reader);
  stat->left_ms = packbuf_i_wire_take64(reader);
  stat->head_checksum = packbuf_i_wire_take32(reader);
  stat->flags = packbuf_i_wire_take32(reader);
  stat->leases = packbuf_i_wire_take32(reader);
  stat->kind = packbuf_i_wire_take8(reader);
  zero = packbuf_i_wire_take8(reader);
  zero |= packbuf_i_wire_take16(reader);
  packbuf_i_wire_take_bytes(reader, stat->fingerprint, PACKBUF_FINGERPRINT);
  if (!reader->ok) return packbuf_i_frame_short;
  if (zero) return packbuf_i_frame_zero;
  if (stat->length > (uint64_t)INT64_MAX || stat->head_length > stat->length) return "the length of an object is wrong";
  return NULL;
}

#define PACKBUF_I_RESULT_SIZE 88u
typedef struct packbuf_i_result {
  uint16_t index, status;
  uint64_t follows; /* bytes of the item that come in DATA */
  packbuf_stat stat;
} packbuf_i_result;

static void packbuf_i_result_write(packbuf_i_wire_to *writer, const packbuf_i_result *result) {
  packbuf_i_wire_give16(writer, result->index);
  packbuf_i_wire_give16(writer, result->status);
  packbuf_i_wire_give32(writer, 0);
  packbuf_i_wire_give64(writer, result->follows);
  packbuf_i_stat_write(writer, &result->stat);
}

static const char *packbuf_i_result_read(packbuf_i_wire_from *reader, packbuf_i_result *result) {
  const char *why;
  uint32_t zero;
  result->index = packbuf_i_wire_take16(reader);
  result->status = packbuf_i_wire_take16(reader);
  zero = packbuf_i_wire_take32(reader);
  result->follows = packbuf_i_wire_take64(reader);
  why = packbuf_i_stat_read(reader, &result->stat);
  if (why) return why;
  if (zero) return packbuf_i_frame_zero;
  if (result->index >= PACKBUF_I_FRAME_ITEMS) return "an item that was not asked for";
  if (result->follows > (uint64_t)INT64_MAX || (result->status && result->follows)) return "more follows than may";
  return NULL;
}

#define PACKBUF_I_DATA_SIZE 16u
static void packbuf_i_data_write(packbuf_i_wire_to *writer, uint16_t index, uint64_t offset) {
  packbuf_i_wire_give16(writer, index);
  packbuf_i_wire_give16(writer, 0);
  packbuf_i_wire_give32(writer, 0);
  packbuf_i_wire_give64(writer, offset);
}

static const char *packbuf_i_data_read(const packbuf_i_frame *frame, const uint8_t *body, uint16_t *index,
                                       uint64_t *offset) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  uint32_t zero;
  *index = packbuf_i_wire_take16(&reader);
  zero = packbuf_i_wire_take16(&reader);
  zero |= packbuf_i_wire_take32(&reader);
  *offset = packbuf_i_wire_take64(&reader);
  if (!reader.ok) return packbuf_i_frame_short;
  if (zero) return packbuf_i_frame_zero;
  return *offset <= (uint64_t)INT64_MAX - frame->payload ? NULL : "an offset is too large";
}

/* ---- queue pairs, and objects that are read through them ---- */

#define PACKBUF_I_PAIRING_SIZE 40u /* without the pairs */
/* What one side says of its queue pairs; status: why it has none. */
typedef struct packbuf_i_pairing {
  uint16_t status, lid;
  uint8_t mtu, reads, gid[16]; /* mtu: 1 to 5 for 256 to 4096; reads: that it serves at a time */
  uint64_t address;            /* server: of its lease words, of 8 bytes each */
  uint32_t rkey, words, count, numbers[PACKBUF_I_PAIRS_MOST], psns[PACKBUF_I_PAIRS_MOST];
} packbuf_i_pairing;

static void packbuf_i_pairing_write(packbuf_i_wire_to *writer, const packbuf_i_pairing *pairing) {
  packbuf_i_wire_give16(writer, pairing->status);
  packbuf_i_wire_give16(writer, pairing->lid);
  packbuf_i_wire_give8(writer, pairing->mtu);
  packbuf_i_wire_give8(writer, pairing->reads);
  packbuf_i_wire_give16(writer, 0);
  packbuf_i_wire_give(writer, pairing->gid, sizeof pairing->gid);
  packbuf_i_wire_give64(writer, pairing->address);
  packbuf_i_wire_give32(writer, pairing->rkey);
  packbuf_i_wire_give32(writer, pairing->words);
  for (unsigned i = 0; i < pairing->count; i++) {
    packbuf_i_wire_give32(writer, pairing->numbers[i]);
    packbuf_i_wire_give32(writer, pairing->psns[i]);
  }
}

static const char *packbuf_i_pairing_read(const packbuf_i_frame *frame, const uint8_t *body,
                                          packbuf_i_pairing *pairing) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  unsigned zero, wide = 0;
  memset(pairing, 0, sizeof *pairing);
  pairing->status = packbuf_i_wire_take16(&reader);
  pairing->lid = packbuf_i_wire_take16(&reader);
  pairing->mtu = packbuf_i_wire_take8(&reader);
  pairing->reads = packbuf_i_wire_take8(&reader);
  zero = packbuf_i_wire_take16(&reader);
  packbuf_i_wire_take_bytes(&reader, pairing->gid, sizeof pairing->gid);
  pairing->address = packbuf_i_wire_take64(&reader);
  pairing->rkey = packbuf_i_wire_take32(&reader);
  pairing->words = packbuf_i_wire_take32(&reader);
  pairing->count = frame->items;
  for (unsigned i = 0; i < pairing->count; i++) {
    pairing->numbers[i] = packbuf_i_wire_take32(&reader);
    pairing->psns[i] = packbuf_i_wire_take32(&reader);
    wide |= pairing->numbers[i] >> 24 | pairing->psns[i] >> 24;
  }
  if (!reader.ok) return packbuf_i_frame_short;
  if (zero) return packbuf_i_frame_zero;
  if (pairing->status ? pairing->count != 0 : !pairing->count) return "queue pairs that are none";
  if (!pairing->status && (pairing->mtu < 1 || pairing->mtu > 5 || !pairing->reads || wide))
    return "a queue pair's numbers are out of range";
  if (pairing->words > PACKBUF_I_FRAME_ITEMS || pairing->address > UINT64_MAX - 8u * PACKBUF_I_FRAME_ITEMS)
    return "lease words that lie at no address";
  return NULL;
}

#define PACKBUF_I_LOCATED_SIZE 96u
/* Where the bytes of an object lie; word: of the lease words, that which is its generation while they do. */
typedef struct packbuf_i_located {
  uint16_t index;
  uint32_t word, rkey;
  uint64_t address;
  packbuf_stat stat;
} packbuf_i_located;

static void packbuf_i_located_write(packbuf_i_wire_to *writer, const packbuf_i_located *located) {
  packbuf_i_wire_give16(writer, located->index);
  packbuf_i_wire_give16(writer, 0);
  packbuf_i_wire_give32(writer, located->word);
  packbuf_i_wire_give64(writer, located->address);
  packbuf_i_wire_give32(writer, located->rkey);
  packbuf_i_wire_give32(writer, 0);
  packbuf_i_stat_write(writer, &located->stat);
}

static const char *packbuf_i_located_read(packbuf_i_wire_from *reader, packbuf_i_located *located) {
  const char *why;
  uint32_t zero;
  located->index = packbuf_i_wire_take16(reader);
  zero = packbuf_i_wire_take16(reader);
  located->word = packbuf_i_wire_take32(reader);
  located->address = packbuf_i_wire_take64(reader);
  located->rkey = packbuf_i_wire_take32(reader);
  zero |= packbuf_i_wire_take32(reader);
  why = packbuf_i_stat_read(reader, &located->stat);
  if (why) return why;
  if (zero) return packbuf_i_frame_zero;
  if (located->index >= PACKBUF_I_FRAME_ITEMS) return "an item that was not asked for";
  if (located->stat.length > UINT64_MAX - located->address) return "an object that lies at no address";
  return NULL;
}

/* ---- lists ---- */

enum { PACKBUF_I_LIST_COLLECT = 1 }; /* collect before */
typedef struct packbuf_i_list_ask {
  uint64_t cursor;
  uint32_t most; /* entries; 0: the numbers of the store alone */
  uint16_t options;
  char prefix[256];
} packbuf_i_list_ask;

static void packbuf_i_list_write(packbuf_i_wire_to *writer, const packbuf_i_list_ask *list) {
  const size_t prefix = strlen(list->prefix);
  packbuf_i_wire_give64(writer, list->cursor);
  packbuf_i_wire_give32(writer, list->most);
  packbuf_i_wire_give16(writer, list->options);
  packbuf_i_wire_give8(writer, 0);
  packbuf_i_wire_give8(writer, (uint8_t)prefix);
  packbuf_i_wire_give(writer, list->prefix, prefix);
}

static const char *packbuf_i_list_read(const packbuf_i_frame *frame, const uint8_t *body, packbuf_i_list_ask *list) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  size_t prefix;
  unsigned zero;
  memset(list, 0, sizeof *list);
  list->cursor = packbuf_i_wire_take64(&reader);
  list->most = packbuf_i_wire_take32(&reader);
  list->options = packbuf_i_wire_take16(&reader);
  zero = packbuf_i_wire_take8(&reader);
  prefix = packbuf_i_wire_take8(&reader);
  packbuf_i_wire_take_bytes(&reader, list->prefix, prefix);
  if (!reader.ok) return packbuf_i_frame_short;
  if (zero) return packbuf_i_frame_zero;
  if (list->options & ~(unsigned)PACKBUF_I_LIST_COLLECT) return "unknown options of a list";
  if (memchr(list->prefix, 0, prefix)) return "a prefix with a zero byte";
  return NULL;
}

#define PACKBUF_I_LISTED_SIZE 48u
#define PACKBUF_I_LISTED_MOST 2048u                               /* entries that fit whatever their keys are */
#define PACKBUF_I_LISTED_ENTRY (PACKBUF_I_RESULT_SIZE - 16u + 1u) /* without the key */
typedef struct packbuf_i_listing {
  uint16_t status;
  uint64_t cursor, size, used, objects, most_objects, left; /* left: of packbuf_store_collect; objects: UINT64_MAX.. */
} packbuf_i_listing;

static void packbuf_i_listing_write(packbuf_i_wire_to *writer, const packbuf_i_listing *listing) {
  packbuf_i_wire_give16(writer, listing->status);
  packbuf_i_wire_give16(writer, 0);
  packbuf_i_wire_give32(writer, (uint32_t)(listing->left < UINT32_MAX ? listing->left : UINT32_MAX));
  packbuf_i_wire_give64(writer, listing->cursor);
  packbuf_i_wire_give64(writer, listing->size);
  packbuf_i_wire_give64(writer, listing->used);
  packbuf_i_wire_give64(writer, listing->objects);
  packbuf_i_wire_give64(writer, listing->most_objects);
}

static void packbuf_i_listed_write(packbuf_i_wire_to *writer, const packbuf_listed *listed) {
  const size_t key = strlen(listed->key);
  packbuf_i_stat_write(writer, &listed->stat);
  packbuf_i_wire_give8(writer, (uint8_t)key);
  packbuf_i_wire_give(writer, listed->key, key);
}

static const char *packbuf_i_listing_read(packbuf_i_wire_from *reader, packbuf_i_listing *listing) {
  unsigned zero;
  listing->status = packbuf_i_wire_take16(reader);
  zero = packbuf_i_wire_take16(reader);
  listing->left = packbuf_i_wire_take32(reader);
  listing->cursor = packbuf_i_wire_take64(reader);
  listing->size = packbuf_i_wire_take64(reader);
  listing->used = packbuf_i_wire_take64(reader);
  listing->objects = packbuf_i_wire_take64(reader);
  listing->most_objects = packbuf_i_wire_take64(reader);
  if (!reader->ok) return packbuf_i_frame_short;
  return zero ? packbuf_i_frame_zero : NULL;
}

static const char *packbuf_i_listed_read(packbuf_i_wire_from *reader, packbuf_listed *listed) {
  packbuf_i_asked asked;
  const char *why;
  memset(listed, 0, sizeof *listed);
  why = packbuf_i_stat_read(reader, &listed->stat);
  if (why) return why;
  asked.key_size = packbuf_i_wire_take8(reader);
  why = packbuf_i_key_read(reader, &asked);
  if (why) return why;
  memcpy(listed->key, asked.key, asked.key_size);
  return NULL;
}

/* ---- the end ---- */

static packbuf_status packbuf_i_frame_status(const char *why) {
  return why == packbuf_i_frame_memory ? PACKBUF_OUT_OF_MEMORY : PACKBUF_PROTOCOL;
}

typedef struct packbuf_i_bye {
  uint16_t status;
  char text[256]; /* printable ASCII */
} packbuf_i_bye;

static void packbuf_i_bye_write(packbuf_i_wire_to *writer, packbuf_status status, const char *text) {
  const size_t size = strlen(text);
  packbuf_i_wire_give16(writer, (uint16_t)status);
  packbuf_i_wire_give16(writer, (uint16_t)size);
  packbuf_i_wire_give(writer, text, size);
}

static const char *packbuf_i_bye_read(const packbuf_i_frame *frame, const uint8_t *body, packbuf_i_bye *bye) {
  packbuf_i_wire_from reader = packbuf_i_frame_reader(frame, body);
  size_t size;
  memset(bye, 0, sizeof *bye);
  bye->status = packbuf_i_wire_take16(&reader);
  size = packbuf_i_wire_take16(&reader);
  if (size >= sizeof bye->text) return "a text is too long";
  packbuf_i_wire_take_bytes(&reader, bye->text, size);
  if (!reader.ok) return packbuf_i_frame_short;
  for (size_t i = 0; i < size; i++)
    if (bye->text[i] < 0x20 || bye->text[i] > 0x7e) return "a text that is not printable";
  return NULL;
}

/* ---- a stream of bytes, cut into frames ---- */

enum { PACKBUF_I_INTAKE_KEPT = 65536 }; /* bytes of room for a body that wait for the next */

/* Who takes what comes. */
typedef struct packbuf_i_intake_taker {
  /* A frame whose header and body are whole. NULL, or why the connection ends. */
  const char *(*frame)(void *context, const packbuf_i_frame *frame, const uint8_t *body);
  /* Where the next bytes of the payload go; *size: how many there may be, cut to what there is room for, 1 at least.
   * NULL: they are dropped. */
  uint8_t *(*place)(void *context, uint64_t *size);
  /* That many have come. NULL, or why the connection ends. */
  const char *(*placed)(void *context, uint64_t size);
} packbuf_i_intake_taker;

typedef struct packbuf_i_intake {
  const packbuf_i_intake_taker *taker;
  void *context;
  packbuf_allocator allocator;
  uint8_t head[PACKBUF_I_FRAME_HEADER], *body;
  uint32_t head_have, body_have, body_room, most_body;
  packbuf_i_frame frame;
  uint64_t payload; /* bytes of it that have not come */
} packbuf_i_intake;

static void packbuf_i_intake_end(packbuf_i_intake *intake) {
  (void)packbuf_i_heap(&intake->allocator, intake->body, intake->body_room, 0);
  intake->body = NULL;
  intake->body_room = 0;
}

/* The header is whole. */
static const char *packbuf_i_intake_header(packbuf_i_intake *intake) {
  const char *why = packbuf_i_frame_read(intake->head, &intake->frame);
  if (why) return why;
  if (intake->frame.body > intake->most_body) return "a body is too long";
  intake->body_have = 0;
  return NULL;
}

/* Room for so many bytes of the body: as they come, for what a header says costs who says it nothing. */
static const char *packbuf_i_intake_room(packbuf_i_intake *intake, uint32_t size) {
  uint32_t room = intake->body_room ? intake->body_room : 512;
  uint8_t *more;
  if (size <= intake->body_room) return NULL;
  while (room < size) room *= 2;
  more = (uint8_t *)packbuf_i_heap(&intake->allocator, intake->body, intake->body_room, room);
  if (!more) return packbuf_i_frame_memory;
  intake->body = more;
  intake->body_room = room;
  return NULL;
}

/* Header and body are whole. Room for a large body goes back: a connection may do nothing from then on. */
static const char *packbuf_i_intake_frame(packbuf_i_intake *intake) {
  static const uint8_t none[1] = {0};
  const uint8_t *body = intake->frame.body ? intake->body : none;
  const char *why;
  intake->head_have = 0;
  if (packbuf_i_wire_crc(body, intake->frame.body) != intake->frame.body_checksum)
    return "the body's checksum does not match";
  intake->payload = intake->frame.payload;
  why = intake->taker->frame(intake->context, &intake->frame, body);
  if (intake->body_room > PACKBUF_I_INTAKE_KEPT) packbuf_i_intake_end(intake);
  return why;
}

/* Where the next bytes may be received straight away, and how many; NULL: to `packbuf_i_intake_feed`, by way of a
 * buffer. What came there is told by packbuf_i_intake_came. */
static uint8_t *packbuf_i_intake_place(packbuf_i_intake *intake, uint64_t *size) {
  *size = intake->payload;
  return intake->payload ? intake->taker->place(intake->context, size) : NULL;
}

static const char *packbuf_i_intake_came(packbuf_i_intake *intake, uint64_t size) {
  intake->payload -= size;
  return intake->taker->placed(intake->context, size);
}

/* Takes all of these bytes. NULL, or why the connection ends. */
static const char *packbuf_i_intake_feed(packbuf_i_intake *intake, const uint8_t *bytes, size_t size) {
  const char *why = NULL;
  while (size && !why) {
    size_t some;
    if (intake->payload) {
      uint64_t most = intake->payload < size ? intake->payload : size;
      uint8_t *to = intake->taker->place(intake->context, &most);
      some = (size_t)most;
      if (to) memcpy(to, bytes, some);
      why = packbuf_i_intake_came(intake, some);
    } else if (intake->head_have < PACKBUF_I_FRAME_HEADER) {
      some = PACKBUF_I_FRAME_HEADER - intake->head_have;
      if (some > size) some = size;
      memcpy(intake->head + intake->head_have, bytes, some);
      intake->head_have += (uint32_t)some;
      if (intake->head_have == PACKBUF_I_FRAME_HEADER) {
        why = packbuf_i_intake_header(intake);
        if (!why && !intake->frame.body) why = packbuf_i_intake_frame(intake);
      }
    } else {
      some = intake->frame.body - intake->body_have;
      if (some > size) some = size;
      why = packbuf_i_intake_room(intake, intake->body_have + (uint32_t)some);
      if (why) return why;
      memcpy(intake->body + intake->body_have, bytes, some);
      intake->body_have += (uint32_t)some;
      if (intake->body_have == intake->frame.body) why = packbuf_i_intake_frame(intake);
    }
    bytes += some;
    size -= some;
  }
  return why;
}
