/* transport/ref.h: names of stored objects, and what a store knows of one. Plain data.
 * May use: packbuf.h. Must not know: stores. */

#define PACKBUF_MAX_KEY 255       /* bytes of any key: UTF-8 without control characters and spaces, at least one */
#define PACKBUF_MAX_BATCH_KEY 200 /* of a batch's: and no '#' in it, which begins what packbuf_append adds */
#define PACKBUF_MAX_URI 255

typedef enum packbuf_object_kind {
  PACKBUF_OBJECT_BYTES = 0,
  PACKBUF_OBJECT_BATCH = 1,   /* a packed buffer */
  PACKBUF_OBJECT_MANIFEST = 2 /* a packed buffer that lists fragments */
} packbuf_object_kind;

/* What a store knows of one object. Plain data. */
typedef struct packbuf_stat {
  uint64_t generation;  /* of this object: never 0, larger than that of any earlier object of the key, also across
                           restarts of processes and stores */
  uint64_t length;      /* bytes */
  uint64_t head_length; /* of head and index: what to fetch first; 0: not a packed buffer */
  uint64_t age_ms;      /* since it was put */
  uint64_t left_ms;     /* until it is dropped; UINT64_MAX: it has no time-to-live */
  uint32_t head_checksum;
  uint32_t flags;  /* of the put */
  uint32_t leases; /* how many hold it just now (local: leases; shm: handles; tcp, verbs: as of what is served) */
  uint8_t kind;    /* packbuf_object_kind */
  uint8_t fingerprint[PACKBUF_FINGERPRINT]; /* of the schema; zero: not known */
} packbuf_stat;

/* Names one immutable object. Plain data: copy it, send it, keep it. The URI is where it was put, without options and
 * secrets; a store does not look at it, so that one server can be reached in several ways. */
typedef struct packbuf_ref {
  char uri[PACKBUF_MAX_URI + 1], key[PACKBUF_MAX_KEY + 1];
  uint64_t generation; /* 0: whatever is newest (made by packbuf_ref_newest alone) */
  uint64_t head_length, length;
  uint32_t head_checksum;
  uint8_t kind;
  uint8_t fingerprint[PACKBUF_FINGERPRINT];
} packbuf_ref;

#define PACKBUF_REF_TEXT 1640 /* room for the text of any ref, its NUL included */

/* A ref as one line of printable text without spaces, and back: "pbref1:GENERATION:LENGTH:...:KEY:URI", numbers in
 * hexadecimal, other bytes of key and URI percent-encoded. *size: its length without the NUL. Errors: CAPACITY;
 * INVALID_ARGUMENT, with the offset, for what is no such text. Thread-safe. */
PACKBUF_API packbuf_status packbuf_ref_write(const packbuf_ref *ref, char *text, size_t capacity, size_t *size,
                                             packbuf_error *error);
PACKBUF_API packbuf_status packbuf_ref_parse(const char *text, size_t size, packbuf_ref *ref, packbuf_error *error);
