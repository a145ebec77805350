/* transport/text.c: text without printf, strtol and locale: lines and numbers, percent-encoding, keys and what is said
 * of them, URIs and their options.
 * May use: base, status (lines), utf8 of the core; ref.h, store.h; system. Must not know: what a scheme means, which
 * options a store has beyond the common ones. */

/* ---- writing: packbuf_i_line of the core, which counts what does not fit ---- */

/* A line in memory of `capacity` bytes, its final NUL among them; text NULL: it measures. */
static packbuf_i_line packbuf_i_line_in(char *text, size_t capacity) {
  packbuf_i_line line;
  line.text = text;
  line.size = text ? capacity : 0;
  line.length = 0;
  return line;
}

static void packbuf_i_line_character(packbuf_i_line *line, char character) {
  if (line->length + 1 < line->size) line->text[line->length] = character;
  line->length++;
}

static char packbuf_i_hex_digit(unsigned digit, int upper) {
  return (char)(digit < 10 ? '0' + digit : (upper ? 'A' : 'a') + (digit - 10));
}

/* In lower-case digits, `least` of them or more. */
static void packbuf_i_line_hex(packbuf_i_line *line, uint64_t number, unsigned least) {
  unsigned digits = 16;
  while (digits > 1 && digits > least && number >> (4 * (digits - 1)) == 0) digits--;
  while (digits--) packbuf_i_line_character(line, packbuf_i_hex_digit(number >> (4 * digits) & 15, 0));
}

/* Letters, digits, "-._~" and those of `also` as they are, all others as %XX. */
static void packbuf_i_line_percent(packbuf_i_line *line, const char *text, size_t size, const char *also) {
  for (size_t i = 0; i < size; i++) {
    const char c = text[i];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
        (c && (strchr("-._~", c) || strchr(also, c)))) {
      packbuf_i_line_character(line, c);
    } else {
      packbuf_i_line_character(line, '%');
      packbuf_i_line_character(line, packbuf_i_hex_digit((uint8_t)c >> 4, 1));
      packbuf_i_line_character(line, packbuf_i_hex_digit((uint8_t)c & 15u, 1));
    }
  }
}

/* Puts the final NUL. 0: the line was cut (line.length + 1 bytes would have held it). */
static int packbuf_i_line_close(const packbuf_i_line *line) {
  const int fits = line->length < line->size;
  if (line->size) line->text[fits ? line->length : line->size - 1] = 0;
  return fits;
}

/* ---- numbers: all of a text, or 0 ---- */

static unsigned packbuf_i_digit(char c) {
  if (c >= '0' && c <= '9') return (unsigned)(c - '0');
  if (c >= 'a' && c <= 'f') return (unsigned)(c - 'a') + 10;
  return c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10 : 99;
}

static int packbuf_i_parse_digits(const char *text, size_t size, unsigned base, uint64_t most, uint64_t *number) {
  uint64_t sum = 0;
  for (size_t i = 0; i < size; i++) {
    const unsigned digit = packbuf_i_digit(text[i]);
    if (digit >= base || digit > most || sum > (most - digit) / base) return 0;
    sum = sum * base + digit;
  }
  *number = sum;
  return size != 0;
}

/* At most `most`. */
static int packbuf_i_parse_decimal(const char *text, size_t size, uint64_t most, uint64_t *number) {
  return packbuf_i_parse_digits(text, size, 10, most, number);
}

static int packbuf_i_parse_hex(const char *text, size_t size, uint64_t most, uint64_t *number) {
  return packbuf_i_parse_digits(text, size, 16, most, number);
}

/* A decimal number, perhaps with k, m, g or t behind it: times 1024 to the power of 1 to 4. */
static int packbuf_i_parse_size(const char *text, size_t size, uint64_t most, uint64_t *number) {
  unsigned shift = 0;
  switch (size ? text[size - 1] : 0) {
    case 'k':
    case 'K': shift = 10; break;
    case 'm':
    case 'M': shift = 20; break;
    case 'g':
    case 'G': shift = 30; break;
    case 't':
    case 'T': shift = 40; break;
    default: break;
  }
  if (!packbuf_i_parse_decimal(text, size - (shift != 0), most >> shift, number)) return 0;
  *number <<= shift;
  return 1;
}

/* ---- percent-decoding ---- */

/* Decodes into `to` of `capacity` bytes and ends it with a NUL. Returns `size`, or where the text is wrong: "%" without
 * two digits, "%00", or more than there is room for. */
static size_t packbuf_i_percent_decode(const char *text, size_t size, char *to, size_t capacity) {
  size_t at = 0, length = 0;
  while (at < size) {
    const size_t step = text[at] == '%' ? 3 : 1;
    uint64_t byte = (uint8_t)text[at];
    if (step == 3 && (size - at < 3 || !packbuf_i_parse_hex(text + at + 1, 2, 255, &byte))) break;
    if (!byte || length + 1 >= capacity) break;
    to[length++] = (char)(uint8_t)byte;
    at += step;
  }
  to[length] = 0;
  return at;
}

/* ---- keys ---- */

/* 1: eight bytes of '!' to '~'. A byte below borrows, 0x7F carries, and others have the bit already. */
static int packbuf_i_name_plain(uint64_t bytes) {
  return !((bytes | (bytes - 0x2121212121212121u) | (bytes + 0x0101010101010101u)) & 0x8080808080808080u);
}

/* How many bytes from the front are UTF-8 without control characters (U+0000 to U+001F, U+007F to U+009F) and blanks
 * (U+0020): `size` when all are. */
static size_t packbuf_i_name_good(const char *text, size_t size) {
  size_t plain = 0, valid;
  while (size - plain >= 8 && packbuf_i_name_plain(packbuf_i_load64((const uint8_t *)text + plain))) plain += 8;
  valid = plain + packbuf_i_utf8_valid((const uint8_t *)text + plain, size - plain);
  for (size_t i = plain; i < valid; i++) {
    const uint8_t byte = (uint8_t)text[i];
    if (byte <= ' ' || byte == 0x7F || (byte == 0xC2 && (uint8_t)text[i + 1] < 0xA0)) return i;
  }
  return valid;
}

/* strlen, or `most` + 1 for what is longer. */
static size_t packbuf_i_length(const char *text, size_t most) {
  const char *end = (const char *)memchr(text, 0, most + 1);
  return end ? (size_t)(end - text) : most + 1;
}

static const char packbuf_i_key_text[] =
    "a key has 1 to 255 bytes of UTF-8 without blanks and control characters; that of a batch at most 200 and no '#', "
    "as appends add to it";

/* 1: a key: 1 to PACKBUF_MAX_KEY bytes of the above. */
static int packbuf_i_key_valid(const char *key) {
  const size_t size = key ? packbuf_i_length(key, PACKBUF_MAX_KEY) : 0;
  return size >= 1 && size <= PACKBUF_MAX_KEY && packbuf_i_name_good(key, size) == size;
}

/* What a status says of one item: the general text, but where that is of fields and destinations. */
static const char *packbuf_i_item_text(packbuf_status status, packbuf_operation operation, const char *key) {
  if (status == PACKBUF_INVALID_ARGUMENT && !packbuf_i_key_valid(key)) return packbuf_i_key_text;
  if (status == PACKBUF_NOT_FOUND) return "there is no object of this key and generation";
  if (status != PACKBUF_CAPACITY) return packbuf_status_text(status);
  return operation == PACKBUF_PUT ? "the object is larger than the store"
                                  : "the object is larger than the memory given";
}

/* ---- URIs: SCHEME:REST?NAME=VALUE&NAME=VALUE ---- */

#define PACKBUF_I_MAX_URI_TEXT 4096 /* bytes with options */

typedef struct packbuf_i_uri {
  const char *text, *rest;  /* rest: behind "scheme:" or "scheme://" */
  size_t scheme, rest_size; /* bytes */
  size_t base, size;        /* bytes without options, with them */
  size_t next;              /* where the next option begins; size + 1: there are no more */
} packbuf_i_uri;

/* One option, decoded; `at` and `value_at` say where in the URI its two parts are. */
typedef struct packbuf_i_uri_option {
  char name[32], value[PACKBUF_MAX_URI + 1];
  size_t at, value_at;
} packbuf_i_uri_option;

static packbuf_status packbuf_i_uri_fail(packbuf_error *error, const char *message, size_t at) {
  return packbuf_i_fail(error, PACKBUF_INVALID_ARGUMENT, message, at, PACKBUF_NOWHERE);
}

/* Takes a URI apart; the text must stay. Errors: INVALID_ARGUMENT with the offset. */
static packbuf_status packbuf_i_uri_start(packbuf_i_uri *uri, const char *text, packbuf_error *error) {
  const size_t size = text ? packbuf_i_length(text, PACKBUF_I_MAX_URI_TEXT) : 0;
  size_t at = 0, good;
  const char *question;
  memset(uri, 0, sizeof *uri);
  if (size == 0) return packbuf_i_uri_fail(error, "a URI must be given", 0);
  if (size > PACKBUF_I_MAX_URI_TEXT) return packbuf_i_uri_fail(error, "the URI is too long", PACKBUF_I_MAX_URI_TEXT);
  good = packbuf_i_name_good(text, size);
  if (good < size) return packbuf_i_uri_fail(error, "a URI has no blanks and control characters, and is UTF-8", good);
  while ((text[at] >= 'a' && text[at] <= 'z') || (at && text[at] >= '0' && text[at] <= '9')) at++;
  if (at == 0 || text[at] != ':') return packbuf_i_uri_fail(error, "a URI begins with a scheme and a colon", at);
  question = strchr(text, '?');
  uri->text = text;
  uri->size = size;
  uri->scheme = at;
  uri->base = question ? (size_t)(question - text) : size;
  uri->next = uri->base + 1;
  if (uri->base > PACKBUF_MAX_URI)
    return packbuf_i_uri_fail(error, "the URI without its options is too long", PACKBUF_MAX_URI);
  at++;
  if (uri->base - at >= 2 && text[at] == '/' && text[at + 1] == '/') at += 2;
  uri->rest = text + at;
  uri->rest_size = uri->base - at;
  return PACKBUF_OK;
}

static int packbuf_i_uri_has_scheme(const packbuf_i_uri *uri, const char *scheme) {
  return strlen(scheme) == uri->scheme && memcmp(uri->text, scheme, uri->scheme) == 0;
}

/* The next option. *more 0: there is none. Errors: INVALID_ARGUMENT with the offset. */
static packbuf_status packbuf_i_uri_next(packbuf_i_uri *uri, packbuf_i_uri_option *option, int *more,
                                         packbuf_error *error) {
  const char *const begin = uri->text + uri->next, *end, *equal;
  size_t bad;
  *more = uri->next <= uri->size;
  if (!*more) return PACKBUF_OK;
  end = strchr(begin, '&');
  if (!end) end = uri->text + uri->size;
  equal = (const char *)memchr(begin, '=', (size_t)(end - begin));
  if (!equal || equal == begin) return packbuf_i_uri_fail(error, "an option of a URI is not name=value", uri->next);
  option->at = uri->next;
  option->value_at = (size_t)(equal + 1 - uri->text);
  bad = option->at + packbuf_i_percent_decode(begin, (size_t)(equal - begin), option->name, sizeof option->name);
  if (bad + 1 < option->value_at)
    return packbuf_i_uri_fail(error, "the name of an option is too long, or not percent-encoded", bad);
  bad = packbuf_i_percent_decode(equal + 1, (size_t)(end - equal - 1), option->value, sizeof option->value);
  if (bad < (size_t)(end - equal - 1))
    return packbuf_i_uri_fail(error, "the value of an option is too long, or not percent-encoded",
                              option->value_at + bad);
  uri->next = (size_t)(end - uri->text) + 1;
  return PACKBUF_OK;
}

/* ---- the options that all stores have ---- */

/* Sets what an option of that name sets. OK; NOT_FOUND: none is called so; INVALID_ARGUMENT: it cannot have that
 * value. */
static packbuf_status packbuf_i_uri_common(packbuf_store_options *options, const packbuf_i_uri_option *option) {
  static const struct packbuf_i_common_option {
    const char *name;
    size_t offset, size; /* of the member */
    uint64_t most;
  } all[] = {
#define PACKBUF_I_OPTION(name, most) \
  {#name, offsetof(packbuf_store_options, name), sizeof(((packbuf_store_options *)NULL)->name), most}
      PACKBUF_I_OPTION(size, UINT64_MAX),
      PACKBUF_I_OPTION(objects, UINT32_MAX),
      PACKBUF_I_OPTION(sessions, UINT32_MAX),
      PACKBUF_I_OPTION(quota, UINT64_MAX),
      PACKBUF_I_OPTION(pool_size, UINT64_MAX),
      PACKBUF_I_OPTION(connect_ms, UINT32_MAX),
      PACKBUF_I_OPTION(connections, UINT32_MAX),
      PACKBUF_I_OPTION(workers, UINT32_MAX),
      PACKBUF_I_OPTION(must_exist, 1),
      PACKBUF_I_OPTION(read_only, 1),
      PACKBUF_I_OPTION(step_down, 1),
      PACKBUF_I_OPTION(no_auto_register, 1),
      PACKBUF_I_OPTION(huge_pages, 2),
#undef PACKBUF_I_OPTION
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    uint8_t *const member = (uint8_t *)options + all[i].offset;
    uint64_t number;
    if (strcmp(option->name, all[i].name) != 0) continue;
    if (!packbuf_i_parse_size(option->value, strlen(option->value), all[i].most, &number))
      return PACKBUF_INVALID_ARGUMENT;
    if (all[i].size == 8) {
      memcpy(member, &number, 8);
    } else if (all[i].size == 4) {
      const uint32_t half = (uint32_t)number;
      memcpy(member, &half, 4);
    } else *member = (uint8_t)number;
    return PACKBUF_OK;
  }
  return PACKBUF_NOT_FOUND;
}

/* 1: an option before this one has its name. */
static int packbuf_i_uri_twice(const packbuf_i_uri *uri, const packbuf_i_uri_option *option) {
  packbuf_i_uri again = *uri;
  packbuf_i_uri_option before;
  int more;
  again.next = again.base + 1;
  while (packbuf_i_uri_next(&again, &before, &more, NULL) == PACKBUF_OK && more && before.at < option->at)
    if (strcmp(before.name, option->name) == 0) return 1;
  return 0;
}

/* What a store makes of an option that is not a common one; answers as packbuf_i_uri_common does. */
typedef packbuf_status (*packbuf_i_uri_other)(void *context, const packbuf_i_uri_option *option);

/* Sets in *options what the options of a URI say, hands those that not all stores have to `other` (NULL: there are
 * none), and writes the URI without them to `base` (PACKBUF_MAX_URI + 1 bytes will do; NULL: not wanted). Errors:
 * INVALID_ARGUMENT with the offset in the URI, path being the option's name; CAPACITY. */
static packbuf_status packbuf_i_uri_options(const char *text, packbuf_store_options *options, char *base,
                                            size_t capacity, packbuf_i_uri_other other, void *context,
                                            packbuf_error *error) {
  packbuf_i_uri uri;
  packbuf_i_uri_option option;
  int more = 1;
  packbuf_status status = packbuf_i_uri_start(&uri, text, error);
  if (status != PACKBUF_OK) return status;
  if (base && uri.base >= capacity)
    return packbuf_i_too_small(error, "no room for the URI without its options", PACKBUF_NOWHERE, uri.base + 1);
  for (;;) {
    status = packbuf_i_uri_next(&uri, &option, &more, error);
    if (status != PACKBUF_OK) return status;
    if (!more) break;
    if (packbuf_i_uri_twice(&uri, &option))
      return packbuf_i_item_fail(error, PACKBUF_INVALID_ARGUMENT, "an option stands twice in a URI", option.name,
                                 PACKBUF_NOWHERE, option.at);
    status = packbuf_i_uri_common(options, &option);
    if (status == PACKBUF_NOT_FOUND && other) status = other(context, &option);
    if (status == PACKBUF_NOT_FOUND)
      return packbuf_i_item_fail(error, PACKBUF_INVALID_ARGUMENT, "this store has no such option", option.name,
                                 PACKBUF_NOWHERE, option.at);
    if (status != PACKBUF_OK)
      return packbuf_i_item_fail(error, PACKBUF_INVALID_ARGUMENT, "an option cannot have this value", option.name,
                                 PACKBUF_NOWHERE, option.value_at);
  }
  if (!base) return PACKBUF_OK;
  memcpy(base, uri.text, uri.base);
  base[uri.base] = 0;
  return PACKBUF_OK;
}
