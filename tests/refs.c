/* tests/refs.c: refs and counters as text. A ref has one text; whatever else is read is refused, with its offset.
 * May use: the public header alone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../transport/packbuf_transport.h"
#include "fence.h"

#define LONGEST 1634 /* bytes of the longest text, its NUL included */

static void verdict(const char *what) { verdict_on("", what); }

static unsigned below(unsigned limit) { return (unsigned)((random64() >> 32) % limit); }

static packbuf_ref example(void) {
  packbuf_ref ref;
  memset(&ref, 0, sizeof ref);
  memcpy(ref.uri, "tcp://[fe80::1]:7000/a b", 22); /* without the blank and what follows */
  memcpy(ref.key, "job7/step 1:50%#\xC3\xA9", 18);
  ref.key[9] = '@';
  ref.generation = 0x1A2B3C4D5E6F7081u;
  ref.length = 4096;
  ref.head_length = 0xF00;
  ref.head_checksum = 0xDEADBEEFu;
  ref.kind = PACKBUF_OBJECT_BATCH;
  for (int i = 0; i < PACKBUF_FINGERPRINT; i++) ref.fingerprint[i] = (uint8_t)(i * 17);
  return ref;
}

static const char example_text[] =
    "pbref1:1a2b3c4d5e6f7081:1000:f00:deadbeef:1:00112233445566778899aabbccddeeff:"
    "job7/step@1%3A50%25%23%C3%A9:tcp://[fe80::1]:7000/a";

static int same(const packbuf_ref *a, const packbuf_ref *b) {
  return strcmp(a->uri, b->uri) == 0 && strcmp(a->key, b->key) == 0 && a->generation == b->generation &&
         a->head_length == b->head_length && a->length == b->length && a->head_checksum == b->head_checksum &&
         a->kind == b->kind && memcmp(a->fingerprint, b->fingerprint, PACKBUF_FINGERPRINT) == 0;
}

static size_t random_text(char *text, unsigned least, unsigned most) {
  static const char *const pieces[] = {
      "a",  "Z",  "0", "/", "@", "#", "%", ":", "[", "-._~", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x99\x82",
      "\"", "\\", "&="};
  size_t size = 0;
  const size_t want = least + below(most - least + 1);
  while (size < want) {
    const char *piece = pieces[below(sizeof pieces / sizeof pieces[0])];
    if (size + strlen(piece) > want) piece = "x";
    memcpy(text + size, piece, strlen(piece));
    size += strlen(piece);
  }
  text[size] = 0;
  return size;
}

static packbuf_ref random_ref(void) {
  packbuf_ref ref;
  memset(&ref, 0, sizeof ref);
  random_text(ref.key, 1, below(2) ? 8 : PACKBUF_MAX_KEY);
  random_text(ref.uri, 0, below(2) ? 20 : PACKBUF_MAX_URI);
  ref.generation = random64() >> below(64);
  ref.length = random64() >> below(64);
  ref.head_length = ref.length >> below(64);
  ref.head_checksum = (uint32_t)(random64() >> (32 + below(32)));
  ref.kind = (uint8_t)below(3);
  for (int i = 0; i < PACKBUF_FINGERPRINT; i++) ref.fingerprint[i] = below(3) ? (uint8_t)random64() : 0;
  return ref;
}

static void test_trips(void) {
  char text[LONGEST];
  packbuf_ref ref = example(), back;
  size_t size = 0;
  begin("trips");
  expect(packbuf_ref_write(&ref, text, sizeof text, &size, NULL) == PACKBUF_OK, "example");
  expect(size == sizeof example_text - 1 && strcmp(text, example_text) == 0, "example is %s", text);
  expect(packbuf_ref_parse(example_text, size, &back, NULL) == PACKBUF_OK && same(&ref, &back), "example back");
  for (int i = 0; i < 20000; i++) {
    ref = random_ref();
    memset(&back, 0xA5, sizeof back);
    expect(packbuf_ref_write(&ref, text, sizeof text, &size, NULL) == PACKBUF_OK && strlen(text) == size, "write %d",
           i);
    for (size_t at = 0; at < size; at++) expect(text[at] > ' ' && text[at] < 0x7F, "%d: byte %d", i, text[at]);
    expect(packbuf_ref_parse(text, size, &back, NULL) == PACKBUF_OK && same(&ref, &back), "back %d: %s", i, text);
  }
  verdict("what is written is printable and reads back the same");

  begin("longest");
  memset(&ref, 0xFF, sizeof ref);
  memset(ref.key, '%', PACKBUF_MAX_KEY);
  memset(ref.uri, '%', PACKBUF_MAX_URI);
  ref.key[PACKBUF_MAX_KEY] = ref.uri[PACKBUF_MAX_URI] = 0;
  ref.kind = PACKBUF_OBJECT_MANIFEST;
  expect(packbuf_ref_write(&ref, text, sizeof text, &size, NULL) == PACKBUF_OK && size + 1 == LONGEST,
         "%lu bytes", (unsigned long)size);
  expect(packbuf_ref_parse(text, size, &back, NULL) == PACKBUF_OK && same(&ref, &back), "back");
  verdict("the longest text");
}

static void test_room(void) {
  char text[sizeof example_text + 8];
  packbuf_ref ref = example();
  packbuf_error error;
  size_t size = 0;
  begin("room");
  expect(packbuf_ref_write(&ref, NULL, 0, &size, NULL) == PACKBUF_OK && size == sizeof example_text - 1, "measured");
  for (size_t capacity = 0; capacity <= sizeof example_text + 2; capacity++) {
    const packbuf_status wanted = capacity < sizeof example_text ? PACKBUF_CAPACITY : PACKBUF_OK;
    memset(text, 0x5A, sizeof text);
    memset(&error, 0, sizeof error);
    size = 0;
    expect(packbuf_ref_write(&ref, text, capacity, &size, &error) == wanted, "capacity %lu", (unsigned long)capacity);
    expect(size == sizeof example_text - 1, "size at %lu", (unsigned long)capacity);
    if (wanted) expect(error.code == wanted && error.needed == sizeof example_text, "needed");
    for (size_t at = capacity; at < sizeof text; at++)
      expect(text[at] == 0x5A, "written behind %lu", (unsigned long)capacity);
  }
  verdict("nothing is written behind the room there is, and CAPACITY says how much is needed");
}

/* Text, and the offset of what is wrong with it. */
static const struct {
  const char *text;
  unsigned offset;
} malformed[] = {
    {"", 0},
    {"pbref", 0},
    {"pbref2:1:0:0:0:0:00000000000000000000000000000000:k:u", 0},
    {" pbref1:1:0:0:0:0:00000000000000000000000000000000:k:u", 0},
    {"pbref1:", 7},
    {"pbref1::0:0:0:0:00000000000000000000000000000000:k:u", 7},
    {"pbref1:01:0:0:0:0:00000000000000000000000000000000:k:u", 7},
    {"pbref1:A:0:0:0:0:00000000000000000000000000000000:k:u", 7},
    {"pbref1:g:0:0:0:0:00000000000000000000000000000000:k:u", 7},
    {"pbref1:-1:0:0:0:0:00000000000000000000000000000000:k:u", 7},
    {"pbref1:10000000000000000:0:0:0:0:00000000000000000000000000000000:k:u", 7},
    {"pbref1:1:0:0:100000000:0:00000000000000000000000000000000:k:u", 13},
    {"pbref1:1:0:0:0:3:00000000000000000000000000000000:k:u", 15},
    {"pbref1:1:0:0:0:0:0000000000000000000000000000000:k:u", 47},
    {"pbref1:1:0:0:0:0:000000000000000000000000000000000:k:u", 49},
    {"pbref1:1:0:0:0:0:0000000000000000000000000000000G:k:u", 47},
    {"pbref1:1:0:0:0:0:0000000000000000000000000000000A:k:u", 48},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000", 49},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:", 50},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:k", 50},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000::u", 50},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:%6B:u", 50},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:a%2:u", 51},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:a%00:u", 51},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:a%20:u", 50},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:a%C3:u", 50},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:a%3a:u", 53},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:a#:u", 51},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:\xC3\xA9:u", 50},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:k:u ", 52},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:k:u\n", 52},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:k:u%", 53},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:k:u%3Aa", 53},
    {"pbref1:1:0:0:0:0:00000000000000000000000000000000:k:u%3Fa=1", 52},
    {"pbref1:1:1:2:0:0:00000000000000000000000000000000:k:u", 52},
};

static void test_malformed(void) {
  const packbuf_ref before = example();
  packbuf_ref ref = before;
  packbuf_error error;
  char text[LONGEST + 8];
  begin("malformed");
  for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
    const char *const wrong = malformed[i].text;
    memset(&error, 0, sizeof error);
    expect(packbuf_ref_parse(wrong, strlen(wrong), &ref, &error) == PACKBUF_INVALID_ARGUMENT, "accepted: %s", wrong);
    expect(error.offset == malformed[i].offset, "%s: at %lu", wrong, (unsigned long)error.offset);
    expect(error.message && error.code == PACKBUF_INVALID_ARGUMENT, "%s: error", wrong);
    expect(packbuf_ref_parse(wrong, strlen(wrong), &ref, NULL) == PACKBUF_INVALID_ARGUMENT, "without an error");
  }
  expect(packbuf_ref_parse(NULL, 0, &ref, NULL) == PACKBUF_INVALID_ARGUMENT, "no text");
  expect(packbuf_ref_parse(NULL, 60, &ref, NULL) == PACKBUF_INVALID_ARGUMENT, "no text of 60 bytes");
  expect(packbuf_ref_parse(example_text, sizeof example_text - 1, NULL, NULL) == PACKBUF_INVALID_ARGUMENT, "no ref");
  expect(same(&ref, &before), "a ref was changed");
  memset(text, 'k', sizeof text); /* a key and a URI of a byte too much */
  memcpy(text, example_text, 77);
  text[77 + 256] = ':';
  expect(packbuf_ref_parse(text, 77 + 258, &ref, &error) == PACKBUF_INVALID_ARGUMENT && error.offset == 77 + 255,
         "key");
  text[77 + 255] = ':';
  text[77 + 256] = 'k';
  expect(packbuf_ref_parse(text, 77 + 256 + 255, &ref, &error) == PACKBUF_OK && strlen(ref.uri) == 255, "255 and 255");
  expect(packbuf_ref_parse(text, 77 + 256 + 256, &ref, &error) == PACKBUF_INVALID_ARGUMENT &&
         error.offset == 77 + 256 + 255, "URI");
  verdict("malformed texts are refused with their offsets, and the ref stays as it was");
}

/* A text is refused, or it is what would be written. */
static int one_text(const char *text, size_t size) {
  packbuf_ref ref;
  packbuf_error error;
  char again[LONGEST];
  size_t length = 0;
  memset(&error, 0, sizeof error);
  if (packbuf_ref_parse(text, size, &ref, &error)) return error.offset <= size;
  return packbuf_ref_write(&ref, again, sizeof again, &length, NULL) == PACKBUF_OK && length == size &&
         memcmp(again, text, size) == 0;
}

static void test_changed(void) {
  char text[sizeof example_text + 1];
  const size_t size = sizeof example_text - 1;
  begin("changed");
  for (size_t at = 0; at < size; at++) {
    for (int byte = 0; byte < 256; byte++) {
      memcpy(text, example_text, size);
      text[at] = (char)byte;
      expect(one_text(text, size), "byte %lu as %d", (unsigned long)at, byte);
      memcpy(text + at + 1, example_text + at, size - at);
      expect(one_text(text, size + 1), "byte %d before %lu", byte, (unsigned long)at);
    }
    memcpy(text, example_text, size);
    expect(one_text(text, at), "cut to %lu", (unsigned long)at);
    memmove(text + at, text + at + 1, size - at - 1);
    expect(one_text(text, size - 1), "without byte %lu", (unsigned long)at);
  }
  verdict("a text with a byte changed, added, taken away or cut off is refused, or it is another ref's");
}

static void test_invalid(void) {
  char text[LONGEST];
  packbuf_ref ref;
  size_t size = 0;
  begin("invalid");
#define REFUSED(change, what)                                                                                       \
  ref = example();                                                                                                  \
  change;                                                                                                           \
  expect(packbuf_ref_write(&ref, text, sizeof text, &size, NULL) == PACKBUF_INVALID_ARGUMENT, what)
  REFUSED(ref.key[0] = 0, "no key");
  REFUSED(ref.key[1] = ' ', "a blank in the key");
  REFUSED(ref.key[1] = '\n', "a control character in the key");
  REFUSED(ref.key[1] = '\x80', "broken UTF-8 in the key");
  REFUSED(memset(ref.key, 'k', sizeof ref.key), "a key without its end");
  REFUSED(memset(ref.uri, 'u', sizeof ref.uri), "a URI without its end");
  REFUSED(ref.uri[1] = ' ', "a blank in the URI");
  REFUSED(ref.uri[3] = '?', "options in the URI");
  REFUSED(ref.kind = 3, "an unknown kind");
  REFUSED(ref.head_length = ref.length + 1, "a head longer than all");
  expect(packbuf_ref_write(NULL, text, sizeof text, &size, NULL) == PACKBUF_INVALID_ARGUMENT, "no ref");
  verdict("what is no ref is not written");
}

static void test_newest(void) {
  char text[LONGEST], key[PACKBUF_MAX_KEY + 2];
  packbuf_ref ref = packbuf_ref_newest("job7/a"), back, empty;
  size_t size = 0;
  memset(&empty, 0, sizeof empty);
  begin("newest");
  expect(strcmp(ref.key, "job7/a") == 0 && ref.generation == 0 && ref.length == 0 && !ref.uri[0], "members");
  expect(packbuf_ref_write(&ref, text, sizeof text, &size, NULL) == PACKBUF_OK &&
         packbuf_ref_parse(text, size, &back, NULL) == PACKBUF_OK && same(&ref, &back), "as text");
  memset(key, 'k', sizeof key);
  key[PACKBUF_MAX_KEY + 1] = 0;
  ref = packbuf_ref_newest(key);
  expect(same(&ref, &empty), "a key too long is no other key");
  key[PACKBUF_MAX_KEY] = 0;
  ref = packbuf_ref_newest(key);
  expect(strcmp(ref.key, key) == 0, "the longest key");
  ref = packbuf_ref_newest(NULL);
  expect(same(&ref, &empty), "NULL");
  ref = packbuf_ref_newest("a b");
  expect(same(&ref, &empty), "a blank");
  verdict("packbuf_ref_newest");
}

/* ---- counters ---- */

static void test_counters(void) {
  static const char begins[] =
      "# HELP packbuf_puts_total objects put\n"
      "# TYPE packbuf_puts_total counter\n"
      "packbuf_puts_total{store=\"shm:a\",job=\"7\"} 1\n"
      "# HELP packbuf_gets_total objects got, or ranges of them\n";
  static const char gauge[] = "# TYPE packbuf_registered gauge\npackbuf_registered{store=\"shm:a\",job=\"7\"} 9\n";
  packbuf_counters counters;
  packbuf_error error;
  uint64_t next = 0, seen = 0;
  size_t size = 0, same_size = 0;
  char *text;
#define PACKBUF_I_X(name, gauge, about) counters.name = ++next;
  PACKBUF_COUNTER_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
  counters.store_objects = UINT64_MAX;
  begin("counters");
  expect(packbuf_counters_text(&counters, "store=\"shm:a\",job=\"7\"", NULL, 0, &size, NULL) == PACKBUF_OK && size,
         "size");
  text = (char *)calloc(1, size + 2);
  if (!text) return;
  memset(text, 0x5A, size + 1);
  expect(packbuf_counters_text(&counters, "store=\"shm:a\",job=\"7\"", text, size, &same_size, NULL) == PACKBUF_OK &&
         same_size == size && text[size] == 0x5A, "just enough room");
  text[size] = 0;
  expect(strlen(text) == size && text[size - 1] == '\n', "whole lines");
  expect(strncmp(text, begins, sizeof begins - 1) == 0, "the first counter");
  expect(strstr(text, gauge) != NULL, "a gauge");
  for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
    if (*line == '#') continue;
    seen++;
    if (seen < next) expect((uint64_t)strtoull(strchr(line, '}') + 2, NULL, 10) == seen, "counter %d", (int)seen);
    else expect(strstr(line, "} 18446744073709551615\n") != NULL, "the largest number");
  }
  expect(seen == next && next * sizeof(uint64_t) == sizeof counters, "%d counters", (int)seen);
  for (size_t capacity = 0; capacity < size; capacity++) {
    memset(text, 0x5A, size);
    expect(packbuf_counters_text(&counters, "store=\"shm:a\",job=\"7\"", text, capacity, &same_size, &error) ==
                   PACKBUF_CAPACITY &&
               error.needed == size && same_size == size,
           "capacity %lu", (unsigned long)capacity);
    for (size_t at = capacity; at < size && at < capacity + 64; at++) expect(text[at] == 0x5A, "behind the room");
  }
  expect(packbuf_counters_text(&counters, NULL, text, size, &size, NULL) == PACKBUF_OK &&
         strstr(text, "\npackbuf_puts_total 1\n# HELP") != NULL, "without labels");
  expect(packbuf_counters_text(&counters, "", NULL, SIZE_MAX, &same_size, NULL) == PACKBUF_OK && same_size == size,
         "empty labels");
  expect(packbuf_counters_text(NULL, NULL, text, size, &size, NULL) == PACKBUF_INVALID_ARGUMENT, "no counters");
  verdict("counters as Prometheus reads them");
  free(text);
}

int main(void) {
  test_trips();
  test_room();
  test_malformed();
  test_changed();
  test_invalid();
  test_newest();
  test_counters();
  return tap_plan_done();
}
