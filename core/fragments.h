/* core/fragments.h: one batch in many packed buffers. A fragment is a whole packed buffer; a manifest, itself a packed
 * buffer, lists them; a join reads them as one; concat makes one of them. Adding rows or fields writes a new fragment
 * and a new manifest, and never an old byte again (section 23 of the spec).
 * May use: views, batches, schema. Must not know: where fragments are kept. */

typedef enum packbuf_appends {
  PACKBUF_APPENDS_ROWS = 0,  /* rows after all those before it */
  PACKBUF_APPENDS_FIELDS = 1 /* fields, for rows that are there already */
} packbuf_appends;

/* One fragment as a manifest lists it. */
typedef struct packbuf_fragment {
  packbuf_text key;         /* its name in the store: UTF-8, not NUL-terminated */
  uint64_t length;          /* of the whole packed buffer */
  uint64_t head_length;     /* of its head and index: what to fetch first */
  uint64_t first_row, rows; /* the rows of the whole that it holds */
  uint32_t head_checksum;
  uint8_t appends; /* packbuf_appends */
} packbuf_fragment;

/* Describes an open packed buffer as a fragment that holds rows from first_row on. The key's bytes are the caller's.
 * Errors: FRAGMENT_MISMATCH for a manifest. */
PACKBUF_API packbuf_status packbuf_fragment_of(const packbuf_view *view, const char *key, packbuf_appends appends,
                                               uint64_t first_row, packbuf_fragment *fragment, packbuf_error *error);

/* Starts a batch that is a manifest: the fragments of `before` (the manifest so far; NULL: none), then `count` more;
 * packbuf_pack or packbuf_write make its bytes, metadata and batch values may be added. Keys stay the caller's, all
 * else is copied into the arena. Fragments that append rows begin where the rows so far end; those that append fields
 * lie within the rows so far. Errors, with error->fragment: INVALID_ARGUMENT when they do not; BAD_MANIFEST (before),
 * LIMIT, BAD_UTF8, OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_manifest_init(packbuf_batch *batch, const packbuf_view *before,
                                                 const packbuf_fragment *fragments, uint64_t count,
                                                 packbuf_arena *arena, const packbuf_options *options,
                                                 packbuf_error *error);

/* All fragments that a manifest lists, checked, in the arena; keys point into the manifest. *rows (may be NULL): of the
 * whole. Errors: WRONG_TYPE when the view is no manifest; BAD_MANIFEST, with error->path and error->fragment; LIMIT
 * (limits.decoded_bytes); OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_manifest_read(const packbuf_view *manifest, packbuf_arena *arena,
                                                 const packbuf_fragment **fragments, uint64_t *count, uint64_t *rows,
                                                 packbuf_error *error);

enum {
  PACKBUF_WIDEN = 1,      /* columns whose types differ are joined by value (sections 17, 18); cells of fields that a
                             fragment lacks are missing */
  PACKBUF_FIRST_VALUE = 2 /* batch values and metadata that differ: the first fragment's */
};

/* Where rows first_row to first_row + rows of a field are: a node of one of the views. */
typedef struct packbuf_join_part {
  uint32_t fragment; /* index into views */
  uint32_t node;     /* PACKBUF_NO_NODE: not in this fragment (nested paths, under PACKBUF_WIDEN) */
  uint64_t first_row, rows;
} packbuf_join_part;

/* A field of the whole: its parts, by row. */
typedef struct packbuf_join_field {
  packbuf_text name;
  const packbuf_join_part *parts;
  uint32_t part_count;
  uint8_t same; /* 1: all parts have one type and together hold all rows */
} packbuf_join_field;

/* Fragments as one batch. Fields are for reading. It points to the caller's views and to the arena, and copies no cell.
 * Any number of threads may read through one. */
typedef struct packbuf_join {
  const packbuf_view *views;
  uint32_t view_count, field_count, value_count;
  uint64_t rows;
  unsigned flags;
  const packbuf_join_field *fields; /* in first-seen order */
  const packbuf_join_field *values; /* batch values, likewise: a part for each fragment that has it */
  const uint32_t *by_name;          /* indexes of fields, sorted by name */
} packbuf_join;

/* Joins `count` open fragments. `list` says what each holds, as packbuf_manifest_read gives it; NULL: all append rows,
 * in this order. The heads are verified (level head). Errors, with error->fragment and, of a field, error->path:
 * FRAGMENT_MISMATCH when length, head_length, rows or head_checksum are not as listed, or a fragment is a manifest;
 * BAD_MANIFEST when the list does not fit together; ROW_ORDER when a fragment that appends fields has no
 * row_order_token or another than the rows it belongs to; DUPLICATE_NAME when two have a field for the same rows;
 * SCHEMA_MISMATCH, unless PACKBUF_WIDEN, when a field's types differ, or it lacks in some rows (error->row: the first).
 */
PACKBUF_API packbuf_status packbuf_join_init(packbuf_join *join, const packbuf_fragment *list,
                                             const packbuf_view *views, uint64_t count, unsigned flags,
                                             packbuf_arena *arena, packbuf_error *error);

/* The parts of any path ("meta.step"), by row: at most `capacity` into parts; *count is how many there are. NOT_FOUND
 * when no fragment has it. */
PACKBUF_API packbuf_status packbuf_join_parts(const packbuf_join *join, const char *path, packbuf_join_part *parts,
                                              uint64_t capacity, uint64_t *count, packbuf_error *error);

/* Rows `first` to `first + count` of a path, or of all fields as dicts, as packbuf_read_column and packbuf_read_rows
 * give them; and all batch values as a dict. Errors: OUT_OF_RANGE, NOT_FOUND, OUT_OF_MEMORY, and those of reading, with
 * error->fragment; batch values that differ: SCHEMA_MISMATCH, unless PACKBUF_FIRST_VALUE. */
PACKBUF_API packbuf_status packbuf_join_read_column(const packbuf_join *join, const char *path, uint64_t first,
                                                    uint64_t count, packbuf_arena *arena, packbuf_value *values,
                                                    packbuf_error *error);
PACKBUF_API packbuf_status packbuf_join_read_rows(const packbuf_join *join, uint64_t first, uint64_t count,
                                                  packbuf_arena *arena, packbuf_value *rows, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_join_read_batch_values(const packbuf_join *join, packbuf_arena *arena,
                                                          packbuf_value *value, packbuf_error *error);

/* Starts a batch with all rows, fields, batch values and metadata of a join: packing it gives one packed buffer, the
 * one that packing the whole at once would have given. Columns of one type are taken over without becoming values:
 * ragged numbers, text and bytes in place (the views must stay until the batch is written), dense ones copied once;
 * the rest is read and added as values. Metadata of nodes below the fields is kept where the types are the same.
 * Errors: as those of reading, and SCHEMA_MISMATCH for batch values or metadata that differ. */
PACKBUF_API packbuf_status packbuf_join_batch(const packbuf_join *join, packbuf_arena *arena,
                                              const packbuf_options *options, packbuf_batch *batch,
                                              packbuf_error *error);

/* Both: the rows of `count` packed buffers, in this order, as one batch. */
PACKBUF_API packbuf_status packbuf_concat(const packbuf_view *views, uint64_t count, unsigned flags,
                                          packbuf_arena *arena, const packbuf_options *options, packbuf_batch *batch,
                                          packbuf_error *error);
