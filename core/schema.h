/* core/schema.h: the schema of a packed buffer: which columns it has and of what type, as text, and a fingerprint of
 * it, by which a consumer refuses a batch that drifted from the one it was built for (section 24 of the spec).
 * May use: views. Must not know: values, how a batch is built. */

#define PACKBUF_FINGERPRINT 16 /* bytes */

/* The schema as text: one JSON object a line, each ended by a newline; the columns in one fixed order whatever order
 * they were added in. What may change from step to step (rows, lengths, null and missing cells, storage, metadata) is
 * not in it. Writes at most `capacity` bytes, no NUL; *size is the length the whole text has (text may be NULL to
 * measure). Checks the records of the head first. Allocates nothing. Errors: the N, B, M and S rules; LIMIT (a text
 * beyond limits.head_bytes), CAPACITY. */
PACKBUF_API packbuf_status packbuf_schema_text(const packbuf_view *view, char *text, size_t capacity, size_t *size,
                                               packbuf_error *error);

/* The line of one node, without its newline; otherwise likewise. */
PACKBUF_API packbuf_status packbuf_schema_line(const packbuf_view *view, uint32_t node, char *text, size_t capacity,
                                               size_t *size, packbuf_error *error);

/* The first 16 bytes of the SHA-256 of the schema text; of a text. The text itself is never made: no memory. */
PACKBUF_API packbuf_status packbuf_fingerprint(const packbuf_view *view, uint8_t fingerprint[PACKBUF_FINGERPRINT],
                                               packbuf_error *error);
PACKBUF_API void packbuf_fingerprint_of(const char *text, size_t size, uint8_t fingerprint[PACKBUF_FINGERPRINT]);

/* The first column that is not as expected. Its line is packbuf_schema_line(view, node). */
typedef struct packbuf_drift {
  packbuf_text expected; /* its line in the text given, without the newline; size 0: nothing of this path is expected */
  uint32_t node;         /* the node that is there; PACKBUF_NO_NODE: none is */
} packbuf_drift;

/* PACKBUF_OK when the view has exactly the columns of a schema text; else SCHEMA_MISMATCH with the first difference:
 * error->path, a message that says what differs, and *drift (may be NULL). INVALID_ARGUMENT: no schema text. */
PACKBUF_API packbuf_status packbuf_expect_schema(const packbuf_view *view, const char *text, size_t size,
                                                 packbuf_drift *drift, packbuf_error *error);
/* The same for a fingerprint, which cannot tell where the difference is. */
PACKBUF_API packbuf_status packbuf_expect_fingerprint(const packbuf_view *view,
                                                      const uint8_t fingerprint[PACKBUF_FINGERPRINT],
                                                      packbuf_error *error);
