/* exchange/arrow_words.c: what both directions of Arrow say in the same words: keys of metadata, numbers in formats.
 * May use: packbuf.h. Must not know: nodes, the structs of the ABI. */

#define PACKBUF_I_CODEC_KEY "packbuf.codec"
#define PACKBUF_I_PLACES "list" /* in place of a codec: a list whose items have several types */
#define PACKBUF_I_DTYPE_KEY "packbuf.dtype"
#define PACKBUF_I_SERIALIZER_KEY "packbuf.serializer"
#define PACKBUF_I_TIMEZONE_KEY "arrow.timezone" /* of a field: what its time stamps are shown in */
#define PACKBUF_I_EXTENSION_NAME "ARROW:extension:name"
#define PACKBUF_I_EXTENSION_TEXT "ARROW:extension:metadata"

static packbuf_text packbuf_i_text_of(const char *text) {
  packbuf_text made;
  made.data = text;
  made.size = strlen(text);
  return made;
}

static int packbuf_i_text_is(packbuf_text text, const char *word) {
  return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

static int packbuf_i_text_begins(packbuf_text text, const char *word) {
  const size_t size = strlen(word);
  return text.size >= size && memcmp(text.data, word, size) == 0;
}

/* A key with which Arrow or packbuf says what a type is: not the user's. */
static int packbuf_i_reserved_key(packbuf_text key) {
  return packbuf_i_text_begins(key, "ARROW:") || packbuf_i_text_begins(key, "packbuf.") ||
         packbuf_i_text_is(key, PACKBUF_I_TIMEZONE_KEY);
}

/* A prefix and a number, NUL-terminated; `text` has room for 21 bytes behind the prefix. */
static void packbuf_i_write_number(char *text, const char *prefix, uint64_t number) {
  char digits[20];
  size_t size = strlen(prefix), count = 0;
  memcpy(text, prefix, size);
  do digits[count++] = (char)('0' + number % 10);
  while (number /= 10);
  while (count) text[size++] = digits[--count];
  text[size] = 0;
}

/* Reads a number behind a prefix, to the end of the text. 0: there is none, or none below 2^31. */
static int packbuf_i_format_number(const char *text, uint64_t *number) {
  if (*text < '0' || *text > '9') return 0;
  for (*number = 0; *text >= '0' && *text <= '9' && *number <= INT32_MAX; text++)
    *number = *number * 10 + (uint64_t)(*text - '0');
  return *text == 0 && *number <= INT32_MAX;
}
