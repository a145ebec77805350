/* transport/ref.c: refs as text. A ref has one text: what parses is what would be written, byte for byte.
 * May use: text. Must not know: stores. */

#define PACKBUF_I_REF_MAGIC "pbref1:"
/* The longest text: six numbers and their colons, a key and a URI of which each byte is encoded, and the NUL. */
#define PACKBUF_I_REF_LONGEST \
  (7 + 17 + 17 + 17 + 9 + 2 + 2 * PACKBUF_FINGERPRINT + 1 + 3 * PACKBUF_MAX_KEY + 1 + 3 * PACKBUF_MAX_URI + 1)

/* Why a ref is none; NULL: it is one. The URI may be empty: packbuf_ref_newest makes such. */
static const char *packbuf_i_ref_wrong(const packbuf_ref *ref) {
  const size_t size = packbuf_i_length(ref->uri, PACKBUF_MAX_URI);
  if (!packbuf_i_key_valid(ref->key)) return "the ref's key is none";
  if (size > PACKBUF_MAX_URI || packbuf_i_name_good(ref->uri, size) < size || strchr(ref->uri, '?'))
    return "the ref's URI is too long, has options or is no plain text";
  if (ref->kind > PACKBUF_OBJECT_MANIFEST) return "the ref's kind is unknown";
  return ref->head_length > ref->length ? "the ref's head is longer than the object" : NULL;
}

static void packbuf_i_ref_line(packbuf_i_line *line, const packbuf_ref *ref) {
  uint64_t numbers[5];
  numbers[0] = ref->generation;
  numbers[1] = ref->length;
  numbers[2] = ref->head_length;
  numbers[3] = ref->head_checksum;
  numbers[4] = ref->kind;
  packbuf_i_line_text(line, PACKBUF_I_REF_MAGIC);
  for (int i = 0; i < 5; i++) {
    packbuf_i_line_hex(line, numbers[i], 1);
    packbuf_i_line_character(line, ':');
  }
  for (int i = 0; i < PACKBUF_FINGERPRINT; i++) packbuf_i_line_hex(line, ref->fingerprint[i], 2);
  packbuf_i_line_character(line, ':');
  packbuf_i_line_percent(line, ref->key, strlen(ref->key), "/@");
  packbuf_i_line_character(line, ':');
  packbuf_i_line_percent(line, ref->uri, strlen(ref->uri), "/@:[]"); /* last, so colons may stay */
}

PACKBUF_API packbuf_status packbuf_ref_write(const packbuf_ref *ref, char *text, size_t capacity, size_t *size,
                                             packbuf_error *error) {
  const char *const wrong = ref ? packbuf_i_ref_wrong(ref) : "a ref must be given";
  packbuf_i_line line = packbuf_i_line_in(text, capacity);
  if (wrong) return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, wrong);
  packbuf_i_ref_line(&line, ref);
  if (size) *size = line.length;
  if (!packbuf_i_line_close(&line) && text)
    return packbuf_i_too_small(error, "no room for the text of the ref", PACKBUF_NOWHERE, line.length + 1);
  return PACKBUF_OK;
}

/* ---- reading ---- */

/* Where the member that begins at `at` ends: at the next colon, or at the end of the text. */
static size_t packbuf_i_ref_member(const char *text, size_t size, size_t at) {
  while (at < size && text[at] != ':') at++;
  return at;
}

/* Reads the numbers and the fingerprint; *at is where the key begins then, or what is wrong. */
static int packbuf_i_ref_numbers(const char *text, size_t size, packbuf_ref *ref, size_t *at) {
  uint64_t numbers[5];
  static const uint64_t most[5] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT32_MAX, PACKBUF_OBJECT_MANIFEST};
  for (int i = 0; i < 5; i++) {
    const size_t end = packbuf_i_ref_member(text, size, *at);
    if (end == size || !packbuf_i_parse_hex(text + *at, end - *at, most[i], &numbers[i])) return 0;
    *at = end + 1;
  }
  ref->generation = numbers[0];
  ref->length = numbers[1];
  ref->head_length = numbers[2];
  ref->head_checksum = (uint32_t)numbers[3];
  ref->kind = (uint8_t)numbers[4];
  for (int i = 0; i < PACKBUF_FINGERPRINT; i++, *at += 2) {
    uint64_t byte;
    if (size - *at < 2 || !packbuf_i_parse_hex(text + *at, 2, 255, &byte)) return 0;
    ref->fingerprint[i] = (uint8_t)byte;
  }
  if (*at == size || text[*at] != ':') return 0;
  ++*at;
  return 1;
}

/* Reads all of it, in this or another writing. */
static const char *packbuf_i_ref_read(const char *text, size_t size, packbuf_ref *ref, size_t *at) {
  const size_t magic = sizeof PACKBUF_I_REF_MAGIC - 1;
  size_t end, decoded;
  if (size < magic || memcmp(text, PACKBUF_I_REF_MAGIC, magic) != 0) return "no text of a ref: it begins otherwise";
  *at = magic;
  if (!packbuf_i_ref_numbers(text, size, ref, at)) return "a number of the ref is missing or wrong";
  end = packbuf_i_ref_member(text, size, *at);
  decoded = packbuf_i_percent_decode(text + *at, end - *at, ref->key, sizeof ref->key);
  if (decoded < end - *at || end == size || !packbuf_i_key_valid(ref->key)) {
    *at += decoded < end - *at ? decoded : 0;
    return "the ref's key is none";
  }
  *at = end + 1;
  decoded = packbuf_i_percent_decode(text + *at, size - *at, ref->uri, sizeof ref->uri);
  if (decoded < size - *at) {
    *at += decoded;
    return "the ref's URI is too long or not percent-encoded";
  }
  return packbuf_i_ref_wrong(ref);
}

PACKBUF_API packbuf_status packbuf_ref_parse(const char *text, size_t size, packbuf_ref *ref, packbuf_error *error) {
  char again[PACKBUF_I_REF_LONGEST];
  packbuf_i_line line = packbuf_i_line_in(again, sizeof again);
  packbuf_ref read;
  size_t at = 0;
  const char *wrong;
  if (!ref || (!text && size))
    return packbuf_i_call_fail(error, PACKBUF_INVALID_ARGUMENT, "text and ref must be given");
  memset(&read, 0, sizeof read);
  wrong = packbuf_i_ref_read(text, size, &read, &at);
  if (wrong) return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, wrong, at, PACKBUF_NOWHERE);
  packbuf_i_ref_line(&line, &read);
  (void)packbuf_i_line_close(&line);
  for (at = 0; at < size && at < line.length && text[at] == again[at];) at++;
  if (at < size || at < line.length)
    return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, "not written as a ref is", at, PACKBUF_NOWHERE);
  *ref = read;
  return PACKBUF_OK;
}

PACKBUF_API packbuf_ref packbuf_ref_newest(const char *key) {
  packbuf_ref ref;
  memset(&ref, 0, sizeof ref);
  /* What is no key becomes none, which every call refuses, rather than another key. */
  if (packbuf_i_key_valid(key)) memcpy(ref.key, key, strlen(key) + 1);
  return ref;
}
