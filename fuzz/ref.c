/* Fuzz target: any bytes as the text of a ref, as a URI with options, and as the members of a ref. A text that parses is what the ref is written as; a URI's
 * options, encoded anew, say the same; a ref that can be written reads back equal. */
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "tests/internals.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int holds)
{
    if (!holds) abort();
}

static void text_of_ref(const char *text, size_t size)
{
    packbuf_ref ref;
    packbuf_error error;
    char again[PACKBUF_I_REF_LONGEST];
    size_t length = 0;
    const packbuf_status status = packbuf_ref_parse(text, size, &ref, &error);
    demand(!status || (status == PACKBUF_INVALID_ARGUMENT && error.offset <= size));
    if (status) return;
    demand(packbuf_ref_write(&ref, again, sizeof again, &length, NULL) == PACKBUF_OK);
    demand(length == size && memcmp(again, text, size) == 0);
}

static void members_of_ref(const uint8_t *data, size_t size)
{
    packbuf_ref ref, back;
    char text[PACKBUF_I_REF_LONGEST];
    size_t length = 0, key;
    memset(&ref, 0, sizeof ref);
    if (size < 47) return;
    memcpy(ref.fingerprint, data, 16);
    ref.generation = packbuf_i_load64(data + 16);
    ref.length = packbuf_i_load64(data + 24);
    ref.head_length = packbuf_i_load64(data + 32);
    ref.head_checksum = packbuf_i_load32(data + 40);
    ref.kind = data[44];
    key = data[45];
    data += 46;
    size -= 46;
    if (key > size) key = size;
    memcpy(ref.key, data, key);
    memcpy(ref.uri, data + key, size - key < PACKBUF_MAX_URI ? size - key : PACKBUF_MAX_URI);
    if (packbuf_ref_write(&ref, text, sizeof text, &length, NULL)) return;
    demand(packbuf_ref_parse(text, length, &back, NULL) == PACKBUF_OK && strcmp(back.key, ref.key) == 0 && strcmp(back.uri, ref.uri) == 0);
    demand(back.generation == ref.generation && back.length == ref.length && back.head_length == ref.head_length);
    demand(back.head_checksum == ref.head_checksum && back.kind == ref.kind && memcmp(back.fingerprint, ref.fingerprint, 16) == 0);
}

/* Takes every option and writes it down anew. */
static packbuf_status take(void *context, const packbuf_i_uri_option *option)
{
    packbuf_i_line *line = (packbuf_i_line *)context;
    packbuf_i_line_character(line, line->length ? '&' : '?');
    packbuf_i_line_percent(line, option->name, strlen(option->name), "");
    packbuf_i_line_character(line, '=');
    packbuf_i_line_percent(line, option->value, strlen(option->value), "");
    return PACKBUF_OK;
}

static void uri(const char *text)
{
    static char first[PACKBUF_MAX_URI + 3 * PACKBUF_I_MAX_URI_TEXT], second[sizeof first];
    packbuf_store_options options, same;
    packbuf_error error;
    char base[PACKBUF_MAX_URI + 1];
    packbuf_i_line line = packbuf_i_line_in(first, sizeof first);
    packbuf_status status;
    memset(&options, 0, sizeof options);
    same = options;
    status = packbuf_i_uri_options(text, &options, base, sizeof base, NULL, NULL, &error);
    demand(!status || (status == PACKBUF_INVALID_ARGUMENT && error.offset <= strlen(text)));
    demand(!status == (packbuf_i_uri_options(text, &same, NULL, 0, NULL, NULL, NULL) == PACKBUF_OK));
    memset(&options, 0, sizeof options);
    if (packbuf_i_uri_options(text, &options, base, sizeof base, take, &line, NULL)) return;
    demand(packbuf_i_line_close(&line));
    if (!line.length) return;
    memmove(first + strlen(base), first, line.length + 1);
    memcpy(first, base, strlen(base));
    if (strlen(first) > PACKBUF_I_MAX_URI_TEXT) return;
    memset(&same, 0, sizeof same);
    line = packbuf_i_line_in(second, sizeof second);
    demand(packbuf_i_uri_options(first, &same, NULL, 0, take, &line, NULL) == PACKBUF_OK && packbuf_i_line_close(&line));
    demand(strcmp(first + strlen(base), second) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = (char *)malloc(size + 1);
    if (!text) return 0;
    text_of_ref((const char *)data, size);
    members_of_ref(data, size);
    if (size) memcpy(text, data, size);
    text[size] = 0;
    uri(text);
    free(text);
    return 0;
}
