/* tests/store_text.c: what refs and stores are written and read with: numbers, percent-encoding, keys, URIs and their
 * options, hashes under a key.
 * May use: internals.h. Must not know: stores. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include <ctype.h>
#include "fence.h"

static void verdict(const char *what) { verdict_on("", what); }

/* ---- numbers ---- */

static void one_number(uint64_t number) {
  char text[40], usual[40];
  uint64_t back = 0;
  packbuf_i_line line = packbuf_i_line_in(text, sizeof text);
  packbuf_i_line_number(&line, number);
  snprintf(usual, sizeof usual, "%llu", (unsigned long long)number);
  expect(packbuf_i_line_close(&line) && strcmp(text, usual) == 0, "%s for %s", text, usual);
  expect(packbuf_i_parse_decimal(text, line.length, number, &back) && back == number, "%s back", usual);
  expect(!number || !packbuf_i_parse_decimal(text, line.length, number - 1, &back), "%s is more than %s - 1", usual,
         usual);
  for (unsigned least = 0; least <= 16; least++) {
    line = packbuf_i_line_in(text, sizeof text);
    packbuf_i_line_hex(&line, number, least);
    snprintf(usual, sizeof usual, "%0*llx", (int)least, (unsigned long long)number);
    expect(packbuf_i_line_close(&line) && strcmp(text, usual) == 0, "%s for %s", text, usual);
    expect(packbuf_i_parse_hex(text, line.length, number, &back) && back == number, "%s back", usual);
  }
}

static void test_numbers(void) {
  static const char *const none[] = {
      "", "-1", "+1", " 1", "1 ", "0x1", "1.", "a", "18446744073709551616", "99999999999999999999999"};
  uint64_t number;
  begin("numbers");
  for (unsigned bits = 0; bits <= 64; bits++)
    for (int i = 0; i < 300; i++)
      one_number(bits ? (i < 3 ? (uint64_t)0 - (uint64_t)i : random64()) >> (64 - bits) : 0);
  for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
    expect(!packbuf_i_parse_decimal(none[i], strlen(none[i]), UINT64_MAX, &number), "\"%s\" is no number", none[i]);
  expect(!packbuf_i_parse_hex("10000000000000000", 17, UINT64_MAX, &number), "17 digits");
  expect(!packbuf_i_parse_hex("g", 1, UINT64_MAX, &number), "g");
  expect(!packbuf_i_parse_decimal("5", 1, 4, &number) && !packbuf_i_parse_decimal("1", 1, 0, &number),
         "above the most");
  verdict("numbers, decimal and hexadecimal");
}

static void test_sizes(void) {
  static const struct {
    const char *text;
    int good;
    uint64_t number;
  } sizes[] = {
      {"0", 1, 0},
      {"17", 1, 17},
      {"1k", 1, 1024},
      {"64K", 1, 65536},
      {"3m", 1, 3 << 20},
      {"3M", 1, 3 << 20},
      {"8g", 1, (uint64_t)8 << 30},
      {"8G", 1, (uint64_t)8 << 30},
      {"17179869183g", 1, (uint64_t)17179869183u << 30},
      {"17179869184g", 0, 0},
      {"18446744073709551615", 1, UINT64_MAX},
      {"", 0, 0},
      {"k", 0, 0},
      {"1kk", 0, 0},
      {"1 k", 0, 0},
      {"1t", 1, (uint64_t)1 << 40},
      {"2T", 1, (uint64_t)2 << 40},
      {"16777216t", 0, 0},
      {"1p", 0, 0},
      {"k1", 0, 0},
      {"-1k", 0, 0},
      {"1.5g", 0, 0},
  };
  uint64_t number;
  begin("sizes");
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    number = 0;
    expect(packbuf_i_parse_size(sizes[i].text, strlen(sizes[i].text), UINT64_MAX, &number) == sizes[i].good, "%s",
           sizes[i].text);
    if (sizes[i].good) expect(number == sizes[i].number, "%s is %llu", sizes[i].text, (unsigned long long)number);
  }
  expect(packbuf_i_parse_size("3k", 2, 4095, &number) && !packbuf_i_parse_size("4k", 2, 4095, &number), "the most");
  verdict("sizes with k, m, g and t");
}

/* ---- percent-encoding ---- */

static void test_percent(void) {
  char text[256], encoded[1000], back[256];
  packbuf_i_line line;
  begin("percent");
  for (int i = 1; i < 256; i++) text[i - 1] = (char)i;
  line = packbuf_i_line_in(encoded, sizeof encoded);
  packbuf_i_line_percent(&line, text, 255, "/");
  expect(packbuf_i_line_close(&line), "room");
  for (size_t at = 0; at < line.length; at++)
    expect(isalnum((unsigned char)encoded[at]) || strchr("%-._~/", encoded[at]), "%c is left", encoded[at]);
  expect(line.length == 67 + 3 * (255 - 67), "%lu bytes", (unsigned long)line.length);
  expect(packbuf_i_percent_decode(encoded, line.length, back, sizeof back) == line.length &&
             memcmp(back, text, 255) == 0 && !back[255],
         "back");
  expect(packbuf_i_percent_decode(encoded, line.length, back, 255) < line.length && strlen(back) == 254,
         "a byte too many");
  expect(packbuf_i_percent_decode("a%2f%2F", 7, back, sizeof back) == 7 && strcmp(back, "a//") == 0, "both cases");
  expect(packbuf_i_percent_decode("a%", 2, back, sizeof back) == 1 &&
             packbuf_i_percent_decode("a%2", 3, back, sizeof back) == 1,
         "cut");
  expect(packbuf_i_percent_decode("%2g", 3, back, sizeof back) == 0 &&
             packbuf_i_percent_decode("%-1", 3, back, sizeof back) == 0,
         "no digits");
  expect(packbuf_i_percent_decode("ab%00", 5, back, sizeof back) == 2, "NUL");
  expect(packbuf_i_percent_decode("", 0, back, 1) == 0 && !back[0], "nothing");
  memset(encoded, 0x5A, sizeof encoded);
  line = packbuf_i_line_in(encoded, 5);
  packbuf_i_line_percent(&line, "a b c", 5, "");
  expect(!packbuf_i_line_close(&line) && strcmp(encoded, "a%20") == 0 && line.length == 9 && encoded[5] == 0x5A,
         "cut line %s", encoded);
  line = packbuf_i_line_in(encoded, 0);
  packbuf_i_line_character(&line, 'a');
  expect(!packbuf_i_line_close(&line) && line.length == 1 && encoded[0] == 'a', "no room");
  verdict("percent-encoding");
}

/* ---- keys ---- */

static void test_keys(void) {
  static const char *const good[] = {"k", "a/b.c@d#e%f", "\xC3\xA9", "\xC2\xA0", "\xF0\x9F\x99\x82", "!", "~"};
  static const char *const bad[] = {
      "",         " ",         "a b",  "a\tb", "a\n",          "\x7F",     "\x1F",
      "\xC2\x80", "a\xC2\x9F", "\xC3", "\x80", "\xED\xA0\x80", "\xC0\x80", "\xF5\x80\x80\x80"};
  char key[300];
  begin("keys");
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) expect(packbuf_i_key_valid(good[i]), "good %d", (int)i);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) expect(!packbuf_i_key_valid(bad[i]), "bad %d", (int)i);
  expect(!packbuf_i_key_valid(NULL), "NULL");
  memset(key, 'k', sizeof key);
  key[256] = 0;
  expect(!packbuf_i_key_valid(key), "256 bytes");
  key[255] = 0;
  expect(packbuf_i_key_valid(key), "255 bytes");
  for (int byte = 1; byte < 256; byte++) {
    key[0] = (char)byte;
    key[1] = 0;
    expect(packbuf_i_key_valid(key) == (byte > ' ' && byte < 0x7F), "byte %d", byte);
  }
  for (int at = 0; at < 24; at++) /* also in the words that are looked at whole */
    for (int byte = 1; byte < 256; byte++) {
      const char before = at % 2 ? '!' : '~';
      memset(key, before, 24);
      key[24] = 0;
      key[at] = (char)byte;
      expect(packbuf_i_key_valid(key) == (byte > ' ' && byte < 0x7F), "byte %d at %d", byte, at);
    }
  verdict("keys");
}

/* ---- URIs ---- */

static const struct {
  const char *uri;
  unsigned offset;
} malformed[] = {
    {"", 0},
    {"shm", 3},
    {":a", 0},
    {"1a:b", 0},
    {"Shm:a", 0},
    {"/dev/shm", 0},
    {"shm?a:b", 3},
    {"shm:a b", 5},
    {"shm:a\n", 5},
    {"shm:\x80", 4},
    {"shm:a?", 6},
    {"shm:a?size", 6},
    {"shm:a?=1", 6},
    {"shm:a?size=1&", 13},
    {"shm:a?size=1&&quota=1", 13},
    {"shm:a?siz%=1", 9},
    {"shm:a?siz%zz=1", 9},
    {"shm:a?%00=1", 6},
    {"shm:a?size=%", 11},
    {"shm:a?size=1%0", 12},
    {"shm:a?size=x", 11},
    {"shm:a?size=", 11},
    {"shm:a?size=1&objects=4294967296", 21},
    {"shm:a?read_only=2", 16},
    {"shm:a?huge_pages=3", 17},
    {"shm:a?secret=a", 6},
    {"shm:a?Size=1", 6},
    {"shm:a?quota=1&nothing=1", 14},
    {"shm:a?size=1&quota=1&size=1", 21},
    {"shm:a?size=1&s%69ze=1", 13},
    {"shm:a?abcdefghijklmnopqrstuvwxyz012345=1", 37},
};

static void test_uris(void) {
  packbuf_store_options options;
  packbuf_error error;
  packbuf_i_uri uri;
  packbuf_i_uri_option option;
  char text[PACKBUF_I_MAX_URI_TEXT + 8], base[PACKBUF_MAX_URI + 1];
  int more = 0;
  begin("URIs");
  expect(packbuf_i_uri_start(&uri, "tcp://host:7000?a=1&b%26=%3d=%c3%a9", NULL) == PACKBUF_OK &&
             packbuf_i_uri_has_scheme(&uri, "tcp") && !packbuf_i_uri_has_scheme(&uri, "tc") &&
             !packbuf_i_uri_has_scheme(&uri, "tcps") && uri.base == 15 && uri.rest_size == 9 &&
             memcmp(uri.rest, "host:7000", 9) == 0,
         "tcp");
  expect(!packbuf_i_uri_next(&uri, &option, &more, NULL) && more && !strcmp(option.name, "a") &&
             !strcmp(option.value, "1") && option.at == 16 && option.value_at == 18,
         "the first option");
  expect(!packbuf_i_uri_next(&uri, &option, &more, NULL) && more && !strcmp(option.name, "b&") &&
             !strcmp(option.value, "==\xC3\xA9") && option.at == 20 && option.value_at == 25,
         "the second option");
  expect(!packbuf_i_uri_next(&uri, &option, &more, NULL) && !more && !packbuf_i_uri_next(&uri, &option, &more, NULL) &&
             !more,
         "the end");
  expect(!packbuf_i_uri_start(&uri, "local:", NULL) && uri.rest_size == 0 &&
             !packbuf_i_uri_next(&uri, &option, &more, NULL) && !more,
         "local");
  expect(!packbuf_i_uri_start(&uri, "shm:/a?x=?", NULL) && uri.rest_size == 2 &&
             !packbuf_i_uri_next(&uri, &option, &more, NULL) && !strcmp(option.value, "?"),
         "one slash");
  for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
    memset(&options, 0, sizeof options);
    memset(&error, 0, sizeof error);
    expect(packbuf_i_uri_options(malformed[i].uri, &options, NULL, 0, NULL, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
               error.message,
           "accepted: %s", malformed[i].uri);
    expect(error.offset == malformed[i].offset, "%s: at %lu", malformed[i].uri, (unsigned long)error.offset);
  }
  expect(packbuf_i_uri_options(NULL, &options, NULL, 0, NULL, NULL, NULL) == PACKBUF_INVALID_ARGUMENT, "NULL");
  memset(text, 'a', sizeof text);
  memcpy(text, "shm:", 4);
  text[256] = 0;
  expect(packbuf_i_uri_options(text, &options, base, sizeof base, NULL, NULL, &error) == PACKBUF_INVALID_ARGUMENT &&
             error.offset == 255,
         "256 bytes");
  text[255] = 0;
  expect(
      packbuf_i_uri_options(text, &options, base, sizeof base, NULL, NULL, &error) == PACKBUF_OK && !strcmp(text, base),
      "255 bytes");
  expect(
      packbuf_i_uri_options(text, &options, base, 255, NULL, NULL, &error) == PACKBUF_CAPACITY && error.needed == 256,
      "no room");
  text[255] = '?';
  text[256] = 'a';
  text[PACKBUF_I_MAX_URI_TEXT + 1] = 0;
  expect(packbuf_i_uri_start(&uri, text, &error) == PACKBUF_INVALID_ARGUMENT && error.offset == PACKBUF_I_MAX_URI_TEXT,
         "far too long");
  text[PACKBUF_I_MAX_URI_TEXT] = 0;
  expect(packbuf_i_uri_start(&uri, text, &error) == PACKBUF_OK, "long");
  memcpy(text, "shm:?abcdefghijklmnopqrstuvwxyz01234=", 37); /* a name of 31 bytes, a value of 255, then of 256 */
  text[37 + 255] = 0;
  expect(packbuf_i_uri_start(&uri, text, &error) == PACKBUF_OK &&
             packbuf_i_uri_next(&uri, &option, &more, &error) == PACKBUF_OK && strlen(option.name) == 31 &&
             strlen(option.value) == 255,
         "the longest option");
  text[37 + 255] = 'a';
  text[37 + 256] = 0;
  expect(packbuf_i_uri_start(&uri, text, &error) == PACKBUF_OK &&
             packbuf_i_uri_next(&uri, &option, &more, &error) == PACKBUF_INVALID_ARGUMENT && error.offset == 37 + 255,
         "a value too long");
  verdict("URIs");
}

typedef struct extras {
  int calls;
  char dir[64];
} extras;

static packbuf_status extra(void *context, const packbuf_i_uri_option *option) {
  extras *all = (extras *)context;
  all->calls++;
  if (strcmp(option->name, "mode") == 0)
    return strcmp(option->value, "0660") == 0 ? PACKBUF_OK : PACKBUF_INVALID_ARGUMENT;
  if (strcmp(option->name, "dir") != 0 || strlen(option->value) >= sizeof all->dir) return PACKBUF_NOT_FOUND;
  memcpy(all->dir, option->value, strlen(option->value) + 1);
  return PACKBUF_OK;
}

static void test_options(void) {
  static const char all[] =
      "shm:job?size=8g&objects=4k&sessions=12&quota=1m&dir=/mnt/"
      "a%20b&pool_size=64k&connect_ms=100&connections=4&workers=3"
      "&must_exist=1&read_only=1&step_down=1&no_auto_register=1&huge_pages=2&mode=0660";
  packbuf_store_options options, before;
  packbuf_error error;
  extras more = {0, ""};
  char base[PACKBUF_MAX_URI + 1];
  begin("options");
  memset(&options, 0, sizeof options);
  options.name = "x";
  options.secret_size = 7;
  expect(packbuf_i_uri_options(all, &options, base, sizeof base, extra, &more, &error) == PACKBUF_OK, "all: %s",
         error.message);
  expect(strcmp(base, "shm:job") == 0 && more.calls == 2 && strcmp(more.dir, "/mnt/a b") == 0, "base and others");
  expect(options.size == (uint64_t)8 << 30 && options.objects == 4096 && options.sessions == 12 &&
             options.quota == 1 << 20,
         "sizes");
  expect(options.pool_size == 65536 && options.connect_ms == 100 && options.connections == 4 && options.workers == 3,
         "numbers");
  expect(options.must_exist == 1 && options.read_only == 1 && options.step_down == 1 && options.no_auto_register == 1 &&
             options.huge_pages == 2,
         "flags");
  expect(options.secret_size == 7 && strcmp(options.name, "x") == 0, "what no option sets");
  before = options;
  expect(packbuf_i_uri_options("shm:job", &options, NULL, 0, NULL, NULL, &error) == PACKBUF_OK &&
             memcmp(&before, &options, sizeof options) == 0,
         "none");
  expect(packbuf_i_uri_options("shm:job?size=0&read_only=0", &options, NULL, 0, NULL, NULL, &error) == PACKBUF_OK &&
             options.size == 0 && options.read_only == 0 && options.must_exist == 1,
         "two");
  expect(
      packbuf_i_uri_options("shm:job?mode=0777", &options, NULL, 0, extra, &more, &error) == PACKBUF_INVALID_ARGUMENT &&
          error.offset == 13 && strcmp(error.path, "mode") == 0,
      "a value that the store refuses");
  expect(
      packbuf_i_uri_options("shm:job?mood=0777", &options, NULL, 0, extra, &more, &error) == PACKBUF_INVALID_ARGUMENT &&
          error.offset == 8 && strcmp(error.path, "mood") == 0,
      "an option that the store does not know");
  expect(packbuf_i_uri_options("shm:job?mode=0660&mode=0660", &options, NULL, 0, extra, &more, &error) ==
                 PACKBUF_INVALID_ARGUMENT &&
             error.offset == 18,
         "twice");
  verdict("options of stores, in a URI");
}

/* ---- hashes ---- */

static int hex_is(const uint8_t *bytes, size_t size, const char *hex) {
  for (size_t i = 0; i < size; i++) {
    char two[3];
    snprintf(two, sizeof two, "%02x", bytes[i]);
    if (memcmp(two, hex + 2 * i, 2) != 0) return 0;
  }
  return hex[2 * size] == 0;
}

static void test_siphash(void) {
  /* of the bytes 0, 1, 2, ... under the key 0, 1, ... 15: that of 15 bytes stands in the paper, all are in the
   * authors' vectors */
  static const struct {
    unsigned size;
    uint64_t hash;
  } some[] = {
      {0, 0x726FDB47DD0E0E31u}, {1, 0x74F839C593DC67FDu},  {7, 0xAB0200F58B01D137u},  {8, 0x93F5F5799A932462u},
      {9, 0x9E0082DF0BA9E4B0u}, {15, 0xA129CA6149BE45E5u}, {63, 0x958A324CEB064572u},
  };
  uint8_t key[16], bytes[65], digest[32], eight[8];
  packbuf_i_sha256 sum;
  begin("SipHash");
  for (int i = 0; i < 16; i++) key[i] = (uint8_t)i;
  for (int i = 0; i < 65; i++) bytes[i] = (uint8_t)i;
  for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
    expect(packbuf_i_siphash(key, bytes, some[i].size) == some[i].hash, "%u bytes", some[i].size);
  packbuf_i_sha256_start(&sum);
  for (size_t size = 0; size < 64; size++) {
    packbuf_i_store64(eight, packbuf_i_siphash(key, bytes, size));
    packbuf_i_sha256_add(&sum, eight, 8);
  }
  packbuf_i_sha256_end(&sum, digest);
  expect(hex_is(digest, 32, "0226a91002af9775a791b3ec5a48e643f8848d2d5774dea9be3438d5786bb58e"), "all 64 vectors");
  memmove(bytes + 1, bytes, 64);
  expect(packbuf_i_siphash(key, bytes + 1, 63) == some[6].hash, "from an odd address");
  expect(packbuf_i_siphash(key, NULL, 0) == some[0].hash, "nothing");
  verdict("SipHash-2-4");
}

static void test_hmac(void) {
  static const char long_text[] =
      "This is a test using a larger than block-size key and a larger than block-size data. "
      "The key needs to be hashed before being used by the HMAC algorithm.";
  uint8_t ascending[25];
  const struct {
    uint8_t key;
    unsigned key_size;
    uint8_t byte;
    const char *text;
    unsigned size;
    const char *digest;
  } cases[] = {
      {0x0B, 20, 0, "Hi There", 8, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
      {0, 0, 0, "what do ya want for nothing?", 28, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
      {0xAA, 20, 0xDD, NULL, 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
      {0, 25, 0xCD, NULL, 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
      {0x0C, 20, 0, "Test With Truncation", 20, "a3b6167473100ee06e0c796c2955552b"},
      {0xAA, 131, 0, "Test Using Larger Than Block-Size Key - Hash Key First", 54,
       "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
      {0xAA, 131, 0, long_text, 152, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
  };
  begin("HMAC");
  for (unsigned i = 0; i < 25; i++) ascending[i] = (uint8_t)(i + 1);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint8_t key[131], data[152], digest[32];
    unsigned key_size = cases[i].key_size;
    memset(key, cases[i].key, sizeof key);
    if (i == 1) memcpy(key, "Jefe", key_size = 4);
    if (i == 3) memcpy(key, ascending, 25);
    memset(data, cases[i].byte, sizeof data);
    if (cases[i].text) memcpy(data, cases[i].text, cases[i].size);
    for (unsigned cut = 0; cut <= cases[i].size; cut += 7) {
      packbuf_i_hmac hmac;
      packbuf_i_hmac_start(&hmac, key, key_size);
      packbuf_i_hmac_add(&hmac, data, cut);
      packbuf_i_hmac_add(&hmac, data + cut, cases[i].size - cut);
      packbuf_i_hmac_end(&hmac, digest);
      expect(hex_is(digest, strlen(cases[i].digest) / 2, cases[i].digest), "case %d in two at %u", (int)i + 1, cut);
    }
  }
  for (int bit = 0; bit < 256; bit++) {
    uint8_t a[32], b[32];
    for (int i = 0; i < 32; i++) a[i] = b[i] = (uint8_t)random64();
    expect(packbuf_i_secret_equal(a, b, 32) == 1 && packbuf_i_secret_equal(a, b, 0) == 1, "equal");
    b[bit / 8] = (uint8_t)(b[bit / 8] ^ 1u << bit % 8);
    expect(packbuf_i_secret_equal(a, b, 32) == 0 && packbuf_i_secret_equal(a, b, (size_t)bit / 8) == 1, "bit %d", bit);
  }
  verdict("HMAC-SHA-256 (RFC 4231), comparison of secrets");
}

int main(void) {
  test_numbers();
  test_sizes();
  test_percent();
  test_keys();
  test_uris();
  test_options();
  test_siphash();
  test_hmac();
  return tap_plan_done();
}
