/* codecs/json_ragged.c: cells as JSON text (section 11 of the spec): what can be written, the writer, the parser, the
 * checker. The parser and the checker are one body: the checker is the parser that keeps nothing, so they cannot
 * disagree. Recursion is as deep as the caller's limit, never deeper than PACKBUF_I_DEPTH_LAST.
 * May use: base, arena, utf8, decimal, values, keys. Must not know: columns, packed buffers, other codecs. */

/* ---- strings ---- */

/* Offset of the first byte at or after `at` that does not stand for itself in a string: a quote, a backslash, a control
 * character; or size. */
static uint64_t packbuf_i_json_plain(const uint8_t *text, uint64_t at, uint64_t size) {
  const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
  while (size >= 8 && at < size) {
    /* of the last bytes, those from `at` on; the zeros above them are a hit, at the end */
    const uint64_t past = size - at < 8 ? 8 - (size - at) : 0;
    uint64_t word = packbuf_i_load64(text + at - past) >> 8 * past, quote = word ^ ones * '"';
    uint64_t slash = word ^ ones * '\\';
    /* the lowest bit set is exact: borrows only disturb bytes above a hit */
    uint64_t hits = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((word - ones * 0x20) & ~word)) & tops;
    if (hits) return at + packbuf_i_first_set(hits) / 8;
    at += 8 - past;
  }
  while (at < size && text[at] >= 0x20 && text[at] != '"' && text[at] != '\\') at++;
  return at;
}

/* Four hexadecimal digits at `at`; the number of digits that are right, 4 for success. */
static unsigned packbuf_i_json_hex(const uint8_t *text, uint64_t at, uint64_t size, uint32_t *code) {
  unsigned n;
  *code = 0;
  for (n = 0; n < 4 && at + n < size; n++) {
    uint8_t c = text[at + n];
    if (c >= '0' && c <= '9') *code = *code << 4 | (uint32_t)(c - '0');
    else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') *code = *code << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
    else break;
  }
  return n;
}

/* The escape whose backslash is at `at`: its length and code point; or 0, and the byte where it is wrong in *bad (of a
 * lone surrogate: its backslash). */
static unsigned packbuf_i_json_escape(const uint8_t *text, uint64_t at, uint64_t size, uint32_t *code, uint64_t *bad) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  uint32_t low;
  unsigned digits;
  *bad = at + 1;
  if (size - at < 2) return 0;
  for (unsigned i = 0; i < 8; i++) {
    if (text[at + 1] != (uint8_t)from[i]) continue;
    *code = (uint8_t)to[i];
    return 2;
  }
  if (text[at + 1] != 'u') return 0;
  digits = packbuf_i_json_hex(text, at + 2, size, code);
  *bad = at + 2 + digits;
  if (digits < 4) return 0;
  if (*code < 0xD800 || *code > 0xDFFF) return 6;
  if (*code <= 0xDBFF) { /* the text may end inside the pair: then that is what is wrong */
    if (*bad == size) return 0;
    if (size - *bad < 2) { /* a byte is fetched once: it may change */
      *bad = text[*bad] == '\\' ? size : at;
      return 0;
    }
    if (text[*bad] == '\\' && text[*bad + 1] == 'u') {
      digits = packbuf_i_json_hex(text, at + 8, size, &low);
      *bad = at + 8 + digits;
      if (digits < 4) return 0;
      if (low >= 0xDC00 && low <= 0xDFFF) {
        *code = 0x10000 + ((*code - 0xD800) << 10 | (low - 0xDC00));
        return 12;
      }
    }
  }
  *bad = at;
  return 0;
}

static unsigned packbuf_i_json_utf8(uint32_t code, uint8_t out[4]) {
  if (code < 0x80) {
    out[0] = (uint8_t)code;
    return 1;
  }
  if (code < 0x800) {
    out[0] = (uint8_t)(0xC0 | code >> 6);
    out[1] = (uint8_t)(0x80 | (code & 0x3F));
    return 2;
  }
  if (code < 0x10000) {
    out[0] = (uint8_t)(0xE0 | code >> 12);
    out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    out[2] = (uint8_t)(0x80 | (code & 0x3F));
    return 3;
  }
  out[0] = (uint8_t)(0xF0 | code >> 18);
  out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
  out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
  out[3] = (uint8_t)(0x80 | (code & 0x3F));
  return 4;
}

/* The bytes that a checked string stands for, one after the other; -1 at its closing quote, or where it ends now that
 * it was changed meanwhile. */
typedef struct packbuf_i_json_bytes {
  const uint8_t *text;
  uint64_t at, size;
  uint8_t pending[4];
  unsigned next, count;
} packbuf_i_json_bytes;

static void packbuf_i_json_bytes_start(packbuf_i_json_bytes *bytes, const uint8_t *text, uint64_t size,
                                       uint64_t quote) {
  bytes->text = text;
  bytes->size = size;
  bytes->at = quote + 1;
  bytes->next = bytes->count = 0;
}

static int packbuf_i_json_bytes_next(packbuf_i_json_bytes *bytes) {
  uint32_t code;
  uint64_t bad;
  unsigned length;
  uint8_t byte;
  if (bytes->next < bytes->count) return bytes->pending[bytes->next++];
  if (bytes->at >= bytes->size) return -1;
  byte = bytes->text[bytes->at];
  PACKBUF_I_FETCHED(byte);
  if (byte == '"') return -1;
  if (byte != '\\') {
    bytes->at++;
    return byte;
  }
  length = packbuf_i_json_escape(bytes->text, bytes->at, bytes->size, &code, &bad);
  if (length == 0) {
    bytes->at = bytes->size;
    return -1;
  }
  bytes->at += length;
  bytes->count = packbuf_i_json_utf8(code, bytes->pending);
  bytes->next = 1;
  return bytes->pending[0];
}

/* ---- the parser's state, and the keys of its objects ---- */

typedef struct packbuf_i_json {
  const uint8_t *text;
  uint64_t size, at;
  packbuf_arena *arena;
  int build;            /* 1: keep values; 0: check only */
  packbuf_value *stack; /* items of the open lists and objects, innermost last */
  size_t top, capacity;
  packbuf_status status;
  const char *message;
  uint64_t fail_at;
  packbuf_i_keys keys;
  packbuf_value first[64]; /* the stack of small cells */
} packbuf_i_json;

static int packbuf_i_json_stop(packbuf_i_json *json, packbuf_status status, const char *message, uint64_t at) {
  json->status = status;
  json->message = message;
  json->fail_at = at;
  return 0;
}

static int packbuf_i_json_bad(packbuf_i_json *json, uint64_t at, const char *message) {
  return packbuf_i_json_stop(json, PACKBUF_BAD_JSON, at < json->size ? message : "the text ends too early", at);
}

static int packbuf_i_json_no_memory(packbuf_i_json *json) {
  return packbuf_i_json_stop(json, PACKBUF_OUT_OF_MEMORY, packbuf_i_no_memory_text, PACKBUF_NOWHERE);
}

static int packbuf_i_json_key_order(const void *subject, uint64_t a, uint64_t b) {
  const packbuf_i_json *json = (const packbuf_i_json *)subject;
  packbuf_i_json_bytes x, y;
  int c, d;
  packbuf_i_json_bytes_start(&x, json->text, json->size, a);
  packbuf_i_json_bytes_start(&y, json->text, json->size, b);
  do {
    c = packbuf_i_json_bytes_next(&x);
    d = packbuf_i_json_bytes_next(&y);
  } while (c == d && c >= 0);
  return c - d;
}

/* Same hash as packbuf_i_hash_bytes has of the decoded bytes. */
static uint64_t packbuf_i_json_hash_escaped(const packbuf_i_json *json, uint64_t quote, size_t decoded) {
  packbuf_i_json_bytes bytes;
  uint8_t word[8];
  uint64_t hash = decoded * 0xFF51AFD7ED558CCDu;
  size_t left = decoded;
  packbuf_i_json_bytes_start(&bytes, json->text, json->size, quote);
  for (;; left -= 8) {
    size_t n = left < 8 ? left : 8;
    memset(word, 0, 8);
    for (size_t i = 0; i < n; i++) word[i] = (uint8_t)packbuf_i_json_bytes_next(&bytes);
    hash = packbuf_i_hash_word(hash, packbuf_i_load64(word));
    if (n < 8) return packbuf_i_hash_word(hash, decoded);
  }
}

/* Offset of the closing quote of the string that opens at `quote`, checked or cut off at `end` (then at least end).
 * *decoded: bytes it stands for. */
static uint64_t packbuf_i_json_close_quote(const packbuf_i_json *json, uint64_t quote, uint64_t end, size_t *decoded,
                                           int *escaped) {
  uint64_t at = packbuf_i_json_plain(json->text, quote + 1, end), bad;
  uint32_t code;
  uint8_t out[4];
  *escaped = at < end && json->text[at] == '\\';
  *decoded = (size_t)(at - quote - 1);
  while (at < end && json->text[at] == '\\') {
    unsigned length = packbuf_i_json_escape(json->text, at, end, &code, &bad);
    uint64_t from = at + length;
    if (!length) return end;
    at = packbuf_i_json_plain(json->text, from, end);
    *decoded += (size_t)(at - from) + packbuf_i_json_utf8(code, out);
  }
  return at < end && json->text[at] == '"' ? at : end;
}

/* The next key of the object that cursor->at began in. cursor->left: 2 before its brace, 1 where a key may come, 0
 * elsewhere. */
static int packbuf_i_json_key_next(const void *subject, packbuf_i_key_cursor *cursor, uint64_t *word) {
  const packbuf_i_json *json = (const packbuf_i_json *)subject;
  uint64_t depth = 0;
  for (; cursor->at < cursor->end; cursor->at++) {
    uint64_t quote = cursor->at;
    size_t decoded;
    int escaped;
    switch (json->text[cursor->at]) {
      case '"':
        cursor->at = packbuf_i_json_close_quote(json, quote, cursor->end, &decoded, &escaped);
        if (cursor->at == cursor->end) return 0;
        if (depth || cursor->left != 1) break;
        *word = packbuf_i_key_word(escaped ? packbuf_i_json_hash_escaped(json, quote, decoded)
                                           : packbuf_i_hash_bytes(json->text + quote + 1, decoded),
                                   quote);
        cursor->left = 0;
        cursor->at++;
        return 1;
      case '{':
      case '[':
        if (cursor->left == 2) cursor->left = 1;
        else depth++;
        break;
      case '}':
      case ']':
        if (depth-- == 0) return 0;
        break;
      case ',':
        if (depth == 0) cursor->left = 1;
        break;
      default: break;
    }
  }
  return 0;
}

static const packbuf_i_key_source packbuf_i_json_key_source = {packbuf_i_json_key_order, packbuf_i_json_key_next};

/* ---- the parser: each function below reads at json->at, moves it, and puts one value on the stack ---- */

static int packbuf_i_json_grow(packbuf_i_json *json) {
  size_t old_size = json->capacity * sizeof *json->stack;
  int first = json->stack == json->first;
  packbuf_value *grown;
  if (json->capacity > SIZE_MAX / 2 / sizeof *json->stack) return 0;
  grown =
      (packbuf_value *)packbuf_i_scratch(json->arena, first ? NULL : json->stack, first ? 0 : old_size, old_size * 2);
  if (!grown) return 0;
  if (first) memcpy(grown, json->first, old_size);
  json->stack = grown;
  json->capacity *= 2;
  return 1;
}

/* A place for one more value, NULL when there is no memory. A checker's values all go to the same place. */
static packbuf_value *packbuf_i_json_push(packbuf_i_json *json) {
  packbuf_value *value;
  if (PACKBUF_I_UNLIKELY(json->top == json->capacity) && !packbuf_i_json_grow(json)) {
    packbuf_i_json_no_memory(json);
    return NULL;
  }
  value = &json->stack[json->top];
  json->top += (size_t)json->build;
  return value;
}

/* The values above `base` become one list, or one dict of their pairs. */
static int packbuf_i_json_gather(packbuf_i_json *json, size_t base, packbuf_kind kind) {
  size_t count = json->top - base;
  packbuf_value *value;
  void *items = NULL;
  if (json->build && count) {
    items = packbuf_arena_alloc(json->arena, count * sizeof *value, 8);
    if (!items) return packbuf_i_json_no_memory(json);
    memcpy(items, json->stack + base, count * sizeof *value);
    json->top = base;
  }
  value = packbuf_i_json_push(json);
  if (!value) return 0;
  value->kind = (uint8_t)kind;
  if (kind == PACKBUF_LIST) {
    value->as.list.items = (const packbuf_value *)items;
    value->as.list.count = count;
  } else {
    value->as.dict.entries = (const packbuf_entry *)items;
    value->as.dict.count = count / 2;
  }
  return 1;
}

static uint64_t packbuf_i_json_blank(const packbuf_i_json *json) {
  uint64_t at = json->at;
  while (at < json->size &&
         (json->text[at] == ' ' || json->text[at] == '\n' || json->text[at] == '\r' || json->text[at] == '\t'))
    at++;
  return at;
}

static int packbuf_i_json_literal(packbuf_i_json *json, const char *word, packbuf_kind kind, uint64_t bits) {
  packbuf_value *value = packbuf_i_json_push(json);
  uint64_t at = json->at;
  if (!value) return 0;
  for (; *word; word++, at++)
    if (at == json->size || json->text[at] != (uint8_t)*word) return packbuf_i_json_bad(json, at, "not a JSON value");
  json->at = at;
  value->kind = (uint8_t)kind;
  if (kind == PACKBUF_FLOAT) memcpy(&value->as.f, &bits, 8);
  else value->as.boolean = (int)bits;
  return 1;
}

static uint64_t packbuf_i_json_digits(const packbuf_i_json *json, uint64_t at) {
  while (at < json->size && (unsigned)json->text[at] - '0' < 10) at++;
  return at;
}

/* Fraction and exponent: the number began at json->at, its integer digits end at `at`. */
static int packbuf_i_json_real(packbuf_i_json *json, uint64_t at) {
  const char *text = (const char *)json->text + json->at;
  packbuf_value *value;
  uint64_t from;
  int exponent = 0;
  if (json->text[at] == '.') {
    from = at + 1;
    at = packbuf_i_json_digits(json, from);
    if (at == from) return packbuf_i_json_bad(json, at, "a digit is missing");
  }
  if (at < json->size && (json->text[at] | 0x20) == 'e') {
    exponent = 1;
    from = at + 1;
    if (from < json->size && (json->text[from] == '+' || json->text[from] == '-')) from++;
    at = packbuf_i_json_digits(json, from);
    if (at == from) return packbuf_i_json_bad(json, at, "a digit is missing");
  }
  value = packbuf_i_json_push(json);
  if (!value) return 0;
  value->kind = PACKBUF_FLOAT;
  if ((json->build || exponent || at - json->at > 300) &&
      !packbuf_i_parse_double(text, (size_t)(at - json->at), &value->as.f))
    return packbuf_i_json_bad(json, json->at, "a number is too large");
  json->at = at;
  return 1;
}

static int packbuf_i_json_number(packbuf_i_json *json) {
  const uint8_t *text = json->text;
  uint64_t from = json->at + (text[json->at] == '-'), at = from, number = 0;
  packbuf_value *value;
  for (; at < json->size && (unsigned)text[at] - '0' < 10; at++) number = number * 10 + (unsigned)text[at] - '0';
  if (at == from) {
    if (from > json->at && from < json->size && text[from] == 'I')
      return packbuf_i_json_literal(json, "-Infinity", PACKBUF_FLOAT, 0xFFF0000000000000u);
    return packbuf_i_json_bad(json, at, from > json->at ? "a digit is missing" : "not a JSON value");
  }
  if (text[from] == '0' && at > from + 1) return packbuf_i_json_bad(json, from + 1, "a number starts with 0");
  if (at < json->size && (text[at] == '.' || (text[at] | 0x20) == 'e')) return packbuf_i_json_real(json, at);
  value = packbuf_i_json_push(json);
  if (!value) return 0;
  if (at - from <= 18) {
    value->kind = PACKBUF_INT;
    value->as.i = from > json->at ? -(int64_t)number : (int64_t)number;
  } else if (json->build) {
    const char *digits = (const char *)text + json->at;
    int64_t i = 0;
    uint64_t u = 0;
    int fits = packbuf_i_parse_integer(digits, (size_t)(at - json->at), &i, &u);
    if (fits == 1) *value = packbuf_int(i);
    else if (fits == 2) *value = packbuf_uint(u);
    else *value = packbuf_i_make_text(PACKBUF_BIGINT, digits, (size_t)(at - json->at));
  }
  json->at = at;
  return 1;
}

static int packbuf_i_json_decode_escapes(packbuf_i_json *json, uint64_t quote, packbuf_value *value) {
  packbuf_i_json_bytes bytes;
  uint8_t *to = (uint8_t *)packbuf_arena_alloc(json->arena, value->as.text.size, 1);
  if (!to) return packbuf_i_json_no_memory(json);
  value->as.text.data = (const char *)to;
  packbuf_i_json_bytes_start(&bytes, json->text, json->size, quote);
  for (size_t i = 0; i < value->as.text.size; i++) to[i] = (uint8_t)packbuf_i_json_bytes_next(&bytes);
  return 1;
}

/* *hash: also as an object's key. */
static int packbuf_i_json_string(packbuf_i_json *json, uint64_t *hash) {
  packbuf_value *value = packbuf_i_json_push(json);
  uint64_t quote = json->at, at, bad = 0;
  uint32_t code;
  size_t decoded;
  int escaped;
  if (!value) return 0;
  at = packbuf_i_json_close_quote(json, quote, json->size, &decoded, &escaped);
  if (at == json->size) { /* find out why */
    at = packbuf_i_json_plain(json->text, quote + 1, json->size);
    while (at < json->size && json->text[at] == '\\') {
      unsigned length = packbuf_i_json_escape(json->text, at, json->size, &code, &bad);
      if (!length)
        return packbuf_i_json_bad(json, bad, bad == at ? "a surrogate without its other half" : "not an escape");
      at = packbuf_i_json_plain(json->text, at + length, json->size);
    }
    return packbuf_i_json_bad(json, at, "a control character in a string");
  }
  value->kind = PACKBUF_STRING;
  value->as.text.data = (const char *)json->text + quote + 1;
  value->as.text.size = decoded;
  json->at = at + 1;
  if (hash)
    *hash = escaped ? packbuf_i_json_hash_escaped(json, quote, decoded)
                    : packbuf_i_hash_bytes(json->text + quote + 1, decoded);
  return !escaped || !json->build || packbuf_i_json_decode_escapes(json, quote, value);
}

static int packbuf_i_json_value(packbuf_i_json *json, unsigned depth_left);

static int packbuf_i_json_list(packbuf_i_json *json, unsigned depth_left) {
  size_t base = json->top;
  json->at++;
  json->at = packbuf_i_json_blank(json);
  if (json->at < json->size && json->text[json->at] == ']') {
    json->at++;
    return packbuf_i_json_gather(json, base, PACKBUF_LIST);
  }
  for (;;) {
    if (!packbuf_i_json_value(json, depth_left)) return 0;
    if (json->at < json->size && json->text[json->at] == ',') { /* mostly without blanks */
      json->at++;
      continue;
    }
    json->at = packbuf_i_json_blank(json);
    if (json->at == json->size || (json->text[json->at] != ',' && json->text[json->at] != ']'))
      return packbuf_i_json_bad(json, json->at, "not a comma or the end of a list");
    if (json->text[json->at++] == ']') return packbuf_i_json_gather(json, base, PACKBUF_LIST);
  }
}

static int packbuf_i_json_key(packbuf_i_json *json) {
  uint64_t quote = packbuf_i_json_blank(json), hash = 0;
  int added;
  json->at = quote;
  if (quote == json->size || json->text[quote] != '"') return packbuf_i_json_bad(json, quote, "not a key");
  if (!packbuf_i_json_string(json, &hash)) return 0;
  added = packbuf_i_keys_add(&json->keys, hash, quote);
  if (added < 0) return packbuf_i_json_no_memory(json);
  if (added == 0) return packbuf_i_json_bad(json, quote, "an object has two equal keys");
  json->at = packbuf_i_json_blank(json);
  if (json->at == json->size || json->text[json->at] != ':') return packbuf_i_json_bad(json, json->at, "not a colon");
  json->at++;
  return 1;
}

static int packbuf_i_json_members(packbuf_i_json *json, unsigned depth_left) {
  json->at++;
  json->at = packbuf_i_json_blank(json);
  if (json->at < json->size && json->text[json->at] == '}') {
    json->at++;
    return 1;
  }
  for (;;) {
    if (!packbuf_i_json_key(json) || !packbuf_i_json_value(json, depth_left)) return 0;
    json->at = packbuf_i_json_blank(json);
    if (json->at == json->size || (json->text[json->at] != ',' && json->text[json->at] != '}'))
      return packbuf_i_json_bad(json, json->at, "not a comma or the end of an object");
    if (json->text[json->at++] == '}') return 1;
  }
}

static int packbuf_i_json_object(packbuf_i_json *json, unsigned depth_left) {
  packbuf_i_key_frame frame;
  size_t base = json->top;
  uint64_t duplicate = PACKBUF_NOWHERE;
  int done;
  packbuf_i_keys_open(&json->keys, &frame, json->at, 2);
  done = packbuf_i_json_members(json, depth_left);
  if (!done && json->status != PACKBUF_BAD_JSON && json->status != PACKBUF_DEPTH) return 0;
  /* equal keys ahead of another error are the first error: all orders of checking must report the same byte */
  if (!done) duplicate = json->fail_at;
  if (!packbuf_i_keys_close(&json->keys, done ? json->at - 1 : duplicate, &duplicate) && done)
    return packbuf_i_json_stop(json, PACKBUF_LIMIT, "an object has too many keys to be checked without memory",
                               frame.start.at);
  if (duplicate != (done ? PACKBUF_NOWHERE : json->fail_at))
    return packbuf_i_json_bad(json, duplicate, "an object has two equal keys");
  return done && packbuf_i_json_gather(json, base, PACKBUF_DICT);
}

static int packbuf_i_json_value(packbuf_i_json *json, unsigned depth_left) {
  json->at = packbuf_i_json_blank(json);
  if (json->at == json->size) return packbuf_i_json_bad(json, json->at, "");
  switch (json->text[json->at]) {
    case '"': return packbuf_i_json_string(json, NULL);
    case '[':
    case '{':
      if (!depth_left) return packbuf_i_json_stop(json, PACKBUF_DEPTH, "nested too deeply", json->at);
      return json->text[json->at] == '[' ? packbuf_i_json_list(json, depth_left - 1)
                                         : packbuf_i_json_object(json, depth_left - 1);
    case 'n': return packbuf_i_json_literal(json, "null", PACKBUF_NULL, 0);
    case 't': return packbuf_i_json_literal(json, "true", PACKBUF_BOOL, 1);
    case 'f': return packbuf_i_json_literal(json, "false", PACKBUF_BOOL, 0);
    case 'N': return packbuf_i_json_literal(json, "NaN", PACKBUF_FLOAT, 0x7FF8000000000000u);
    case 'I': return packbuf_i_json_literal(json, "Infinity", PACKBUF_FLOAT, 0x7FF0000000000000u);
    default: return packbuf_i_json_number(json);
  }
}

/* Text that is UTF-8 up to `valid` only: what is wrong before that comes first. */
static void packbuf_i_json_run_invalid(packbuf_i_json *json, unsigned max_depth, uint64_t valid) {
  json->size = valid;
  if (packbuf_i_json_value(json, packbuf_i_depth(max_depth))) {
    json->at = packbuf_i_json_blank(json);
    packbuf_i_json_bad(json, json->at, "text after the value");
  }
  if (json->status == PACKBUF_BAD_JSON && json->fail_at == valid)
    packbuf_i_json_stop(json, PACKBUF_BAD_UTF8, "the text is not UTF-8", valid);
}

static packbuf_status packbuf_i_json_run(packbuf_i_json *json, unsigned max_depth, int cell) {
  uint64_t valid = packbuf_i_utf8_valid(json->text, (size_t)json->size), start = packbuf_i_json_blank(json);
  if (json->size > PACKBUF_I_KEY_AT) packbuf_i_json_stop(json, PACKBUF_LIMIT, "the text is larger than 1 TiB", 0);
  else if (valid != json->size) packbuf_i_json_run_invalid(json, max_depth, valid);
  else if (packbuf_i_json_value(json, packbuf_i_depth(max_depth))) {
    json->at = packbuf_i_json_blank(json);
    if (json->at < json->size) packbuf_i_json_bad(json, json->at, "text after the value");
    else if (cell && json->text[start] == 'n')
      packbuf_i_json_bad(json, start, "a cell is null: that is a mask's matter");
  }
  return json->status;
}

/* An arena makes room for many keys, and for values when there is somewhere to put them. */
static packbuf_status packbuf_i_json_read(const uint8_t *text, uint64_t size, unsigned max_depth, int cell,
                                          packbuf_arena *arena, packbuf_value *value, packbuf_error *error) {
  packbuf_i_json json;
  json.text = text;
  json.size = size;
  json.at = 0;
  json.arena = arena;
  json.build = value != NULL;
  json.stack = json.first;
  json.top = 0;
  json.capacity = sizeof json.first / sizeof json.first[0];
  json.status = PACKBUF_OK;
  packbuf_i_keys_init(&json.keys, &packbuf_i_json_key_source, &json, arena, size * PACKBUF_I_KEYS_PASSES);
  packbuf_i_json_run(&json, max_depth, cell);
  packbuf_i_keys_free(&json.keys);
  if (value && !json.status) *value = json.stack[0];
  if (json.stack != json.first) packbuf_i_scratch(arena, json.stack, json.capacity * sizeof *json.stack, 0);
  return json.status ? packbuf_i_fail(error, json.status, json.message, json.fail_at, PACKBUF_NOWHERE) : PACKBUF_OK;
}

/* Text to a value in the arena. Whoever reads a cell has it checked for null by packbuf_i_json_check, or sees it. */
static packbuf_status packbuf_i_json_decode(const uint8_t *text, uint64_t size, unsigned max_depth,
                                            packbuf_arena *arena, packbuf_value *value, packbuf_error *error) {
  return packbuf_i_json_read(text, size, max_depth, 0, arena, value, error);
}

/* Whether text is JSON, without memory. cell 1: as a cell, so a null is refused. LIMIT: some 128 Ki keys or more in one
 * object. */
static packbuf_status packbuf_i_json_check(const uint8_t *text, uint64_t size, unsigned max_depth, int cell,
                                           packbuf_error *error) {
  return packbuf_i_json_read(text, size, max_depth, cell, NULL, NULL, error);
}

/* ---- what can be written ---- */

static packbuf_status packbuf_i_json_can_below(const packbuf_value *value, unsigned depth_left, packbuf_i_keys *keys,
                                               packbuf_error *error) {
  packbuf_status status = PACKBUF_OK;
  size_t count = value->kind == PACKBUF_LIST ? value->as.list.count : value->as.dict.count;
  if (!depth_left) return packbuf_i_fail(error, PACKBUF_DEPTH, "nested too deeply", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  if (packbuf_i_no_items(value)) return packbuf_i_unencodable(error, "a list or dict has no items");
  for (size_t i = 0; i < count && !status; i++) {
    const packbuf_value *item =
        value->kind == PACKBUF_LIST ? &value->as.list.items[i] : &value->as.dict.entries[i].value;
    if (++keys->values >> 30)
      return packbuf_i_fail(error, PACKBUF_LIMIT, "2^30 values or more", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    if (value->kind == PACKBUF_DICT) {
      const packbuf_value *key = &value->as.dict.entries[i].key;
      if (key->kind != PACKBUF_STRING) return packbuf_i_unencodable(error, "a key is no string");
      status = packbuf_i_check_utf8(key->as.text.data, key->as.text.size, error);
      if (status) return status;
    }
    switch (item->kind) {
      case PACKBUF_NULL:
      case PACKBUF_BOOL:
      case PACKBUF_INT:
      case PACKBUF_UINT: break;
      case PACKBUF_LIST:
      case PACKBUF_DICT: status = packbuf_i_json_can_below(item, depth_left - 1, keys, error); break;
      case PACKBUF_STRING: status = packbuf_i_check_utf8(item->as.text.data, item->as.text.size, error); break;
      case PACKBUF_FLOAT:
        if (item->as.f != item->as.f && packbuf_i_double_bits(&item->as.f) != 0x7FF8000000000000u)
          status = packbuf_i_unencodable(error, "a NaN has a payload");
        break;
      case PACKBUF_BIGINT:
        if (!packbuf_i_is_bigint(item->as.text.data, item->as.text.size))
          status = packbuf_i_unencodable(error, "an integer's text is not a decimal number beyond 64 bits");
        break;
      default: status = packbuf_i_unencodable(error, "JSON has no such value"); break;
    }
  }
  return !status && value->kind == PACKBUF_DICT ? packbuf_i_keys_differ(keys, value, error) : status;
}

/* OK exactly when packbuf_i_json_encode will succeed and its text is valid; else UNENCODABLE, BAD_UTF8 or DEPTH.
 * An arena (or NULL) makes dicts of more than 4096 keys faster to check; nothing stays in it. */
static packbuf_status packbuf_i_json_can(const packbuf_value *value, unsigned depth_left, packbuf_arena *scratch,
                                         packbuf_error *error) {
  packbuf_i_keys keys;
  packbuf_value list;
  packbuf_status status;
  packbuf_i_keys_init(&keys, &packbuf_i_entry_source, NULL, scratch, UINT64_MAX);
  if (value->kind == PACKBUF_LIST || value->kind == PACKBUF_DICT) {
    status = packbuf_i_json_can_below(value, depth_left, &keys, error);
  } else { /* as the only item of a list, so that scalars are looked at in one place */
    list = packbuf_list(value, 1);
    status = packbuf_i_json_can_below(&list, 1, &keys, error);
  }
  packbuf_i_keys_free(&keys);
  return status;
}

/* ---- the writer ---- */

static void packbuf_i_json_put_string(const uint8_t *text, size_t size, packbuf_i_sink *sink) {
  static const char digits[] = "0123456789abcdef", from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
  uint64_t at = 0;
  packbuf_i_push_byte(sink, '"');
  for (;;) {
    uint64_t plain = size ? packbuf_i_json_plain(text, at, size) : 0;
    unsigned i = 0;
    packbuf_i_push(sink, size ? text + at : NULL, (size_t)(plain - at));
    if (plain == size) break;
    packbuf_i_push_byte(sink, '\\');
    while (i < 7 && (uint8_t)from[i] != text[plain]) i++;
    if (i < 7) {
      packbuf_i_push_byte(sink, (uint8_t)to[i]);
    } else {
      packbuf_i_push(sink, "u00", 3);
      packbuf_i_push_byte(sink, (uint8_t)digits[text[plain] >> 4]);
      packbuf_i_push_byte(sink, (uint8_t)digits[text[plain] & 15]);
    }
    at = plain + 1;
  }
  packbuf_i_push_byte(sink, '"');
}

static void packbuf_i_json_put_number(const packbuf_value *value, packbuf_i_sink *sink) {
  char buffer[32], *out = buffer;
  size_t size;
  int direct = sink->at && sink->size <= sink->capacity && sink->capacity - sink->size >= sizeof buffer;
  if (direct) out = (char *)sink->at + sink->size;
  if (value->kind == PACKBUF_FLOAT) size = packbuf_i_format_double(value->as.f, out);
  else if (value->kind == PACKBUF_INT) size = packbuf_i_format_i64(value->as.i, out);
  else size = packbuf_i_format_u64(value->as.u, out);
  if (direct) sink->size += size;
  else packbuf_i_push(sink, buffer, size);
}

static packbuf_status packbuf_i_json_put_float(const packbuf_value *value, packbuf_i_sink *sink, packbuf_error *error) {
  uint64_t bits = packbuf_i_double_bits(&value->as.f);
  if (~bits & 0x7FF0000000000000u) packbuf_i_json_put_number(value, sink);
  else if (bits == 0x7FF8000000000000u) packbuf_i_push(sink, "NaN", 3);
  else if (bits == 0x7FF0000000000000u) packbuf_i_push(sink, "Infinity", 8);
  else if (bits == 0xFFF0000000000000u) packbuf_i_push(sink, "-Infinity", 9);
  else return packbuf_i_unencodable(error, "a NaN has a payload");
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_json_put_items(const packbuf_value *value, unsigned depth_left, packbuf_i_sink *sink,
                                               packbuf_error *error);

/* Pushes a value for which packbuf_i_json_can says OK: texts and equal keys are not looked at again. */
static packbuf_status packbuf_i_json_encode(const packbuf_value *value, unsigned depth_left, packbuf_i_sink *sink,
                                            packbuf_error *error) {
  switch (value->kind) {
    case PACKBUF_NULL: packbuf_i_push(sink, "null", 4); return PACKBUF_OK;
    case PACKBUF_BOOL:
      if (value->as.boolean) packbuf_i_push(sink, "true", 4);
      else packbuf_i_push(sink, "false", 5);
      return PACKBUF_OK;
    case PACKBUF_INT:
    case PACKBUF_UINT: packbuf_i_json_put_number(value, sink); return PACKBUF_OK;
    case PACKBUF_BIGINT: packbuf_i_push(sink, value->as.text.data, value->as.text.size); return PACKBUF_OK;
    case PACKBUF_FLOAT: return packbuf_i_json_put_float(value, sink, error);
    case PACKBUF_STRING:
      packbuf_i_json_put_string((const uint8_t *)value->as.text.data, value->as.text.size, sink);
      return PACKBUF_OK;
    case PACKBUF_LIST:
    case PACKBUF_DICT: return packbuf_i_json_put_items(value, depth_left, sink, error);
    default: return packbuf_i_unencodable(error, "JSON has no such value");
  }
}

static packbuf_status packbuf_i_json_put_items(const packbuf_value *value, unsigned depth_left, packbuf_i_sink *sink,
                                               packbuf_error *error) {
  int list = value->kind == PACKBUF_LIST;
  size_t count = list ? value->as.list.count : value->as.dict.count;
  if (!depth_left) return packbuf_i_fail(error, PACKBUF_DEPTH, "nested too deeply", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  packbuf_i_push_byte(sink, list ? '[' : '{');
  for (size_t i = 0; i < count; i++) {
    const packbuf_value *item = list ? &value->as.list.items[i] : &value->as.dict.entries[i].value;
    packbuf_status status;
    if (packbuf_i_push_enough(sink))
      return packbuf_i_fail(error, PACKBUF_LIMIT, "the text is too large", PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    if (i) packbuf_i_push_byte(sink, ',');
    if (!list) {
      const packbuf_value *key = &value->as.dict.entries[i].key;
      if (key->kind != PACKBUF_STRING) return packbuf_i_unencodable(error, "a key is no string");
      packbuf_i_json_put_string((const uint8_t *)key->as.text.data, key->as.text.size, sink);
      packbuf_i_push_byte(sink, ':');
    }
    status = packbuf_i_json_encode(item, depth_left - 1, sink, error);
    if (status) return status;
  }
  packbuf_i_push_byte(sink, list ? ']' : '}');
  return PACKBUF_OK;
}

/* ---- public ---- */

PACKBUF_API packbuf_status packbuf_json_parse(const char *text, size_t size, unsigned max_depth, packbuf_arena *arena,
                                              packbuf_value *value, packbuf_error *error) {
  return packbuf_i_json_decode((const uint8_t *)text, size, max_depth, arena, value, error);
}

PACKBUF_API packbuf_status packbuf_json_write(const packbuf_value *value, char *text, size_t capacity, size_t *size,
                                              packbuf_error *error) {
  packbuf_i_sink sink;
  packbuf_status status = packbuf_i_json_can(value, PACKBUF_I_DEPTH, NULL, error);
  sink.at = (uint8_t *)text;
  sink.capacity = capacity;
  sink.size = 0;
  sink.limit = sink.at ? 0 : capacity;
  if (!status) status = packbuf_i_json_encode(value, PACKBUF_I_DEPTH, &sink, error);
  if (status) return status;
  if (sink.size > SIZE_MAX)
    return packbuf_i_fail(error, PACKBUF_LIMIT, "the text is larger than the address space", PACKBUF_NOWHERE,
                          PACKBUF_NOWHERE);
  *size = (size_t)sink.size;
  if (text && sink.size > capacity)
    return packbuf_i_too_small(error, "the text is larger than the destination", PACKBUF_NOWHERE, sink.size);
  return PACKBUF_OK;
}
