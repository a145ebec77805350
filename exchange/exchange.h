/* exchange/exchange.h: chosen columns of a packed buffer out to Arrow and DLPack, and columns of theirs into a batch.
 * The mapping, and what is lost, is spec/exchange.md. Calls on one view or selection may run on any threads at once;
 * those that add to one batch, or use one arena, on one at a time. `error` may be NULL.
 * May use: packbuf.h, the two ABIs. Must not know: who is on the other side. */

/* ---- out ---- */

/* Keeps alive what exported memory points to: the bytes of the packed buffer and, for a stream, all that its
 * packbuf_export points to. `take` is called once for each exported struct (and each child of it), before the call
 * returns; `release` once for each taken, when the consumer releases that struct: children may be moved, live longer
 * than their parents, and be released on another thread. Either may be NULL. */
typedef struct packbuf_hold {
  void (*take)(void *context);
  void (*release)(void *context);
  void *context;
} packbuf_hold;

enum {
  PACKBUF_EXPORT_COPY = 1,     /* lend nothing: what is given is a copy, and may be written to */
  PACKBUF_EXPORT_NO_COPY = 2,  /* DLPack: NOT_STORED instead of a copy */
  PACKBUF_EXPORT_VERIFIED = 4, /* Arrow: offsets and text were verified (packbuf_verify, level full) and the memory is
                                  not written to since: they are not looked at again */
  PACKBUF_EXPORT_CELL = 8      /* DLPack, of a selection of one row: the cell in its own shape, without the dimension of
                                  the rows */
};

/* What is exported, and how. Start from zero, node PACKBUF_NO_NODE. */
typedef struct packbuf_export {
  const packbuf_selection *selection; /* which fields (or batch values) and rows; of an open view */
  uint32_t node;                      /* a chosen node alone; PACKBUF_NO_NODE: all that is chosen, as one struct */
  unsigned flags;                     /* PACKBUF_EXPORT_... */
  packbuf_hold hold;
  const packbuf_allocator *allocator; /* of what is copied and of the structs themselves; NULL: the C library's. Its
                                         memory is freed when a struct is released, on that thread */
} packbuf_export;

/* The type: of all that is chosen a struct, each field a child; of a node its own. *out is the caller's to release.
 * Depends on the head alone, and not on which rows are chosen. Metadata come along, but keys that begin with "ARROW:"
 * or "packbuf.". Errors, after which *out is released: UNENCODABLE (a name with a NUL byte, a cell of 2^31 elements or
 * more), those of packbuf_open_column, OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_arrow_schema(const packbuf_export *what, struct ArrowSchema *out,
                                                packbuf_error *error);

/* The data, of that type. Null and missing cells are null. Offsets and text are checked (one pass), as consumers trust
 * them; where a peer may write to the memory meanwhile ask for a copy. Errors, after which *out is released: those of
 * packbuf_arrow_schema and packbuf_select_copy; BAD_UTF8, BAD_OFFSETS, BAD_BOOL; LIMIT, OUT_OF_MEMORY (more than
 * limits.decoded_bytes for one buffer). */
PACKBUF_API packbuf_status packbuf_arrow_array(const packbuf_export *what, struct ArrowArray *out,
                                               packbuf_error *error);

/* Both as a stream of one array, made when it is asked for. *what is copied; what it points to must stay until the
 * stream is released, which is what its hold is for. Errors: OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_arrow_stream(const packbuf_export *what, struct ArrowArrayStream *out,
                                                packbuf_error *error);

/* A column of numbers as a tensor on the CPU: dense cells as [rows, ...], the elements of ragged ones end to end, or
 * with PACKBUF_EXPORT_CELL one cell. Lent memory is read-only and says so (DLPACK_FLAG_BITMASK_READ_ONLY); a copy says
 * that it is one. *out is the caller's to delete. Errors: WRONG_TYPE (no column of numbers, or of 9 dimensions),
 * NOT_NULLABLE with the row (a null or missing cell, which a tensor cannot say), NOT_STORED under NO_COPY, ROW_COUNT
 * (CELL of another number of rows than 1), INVALID_ARGUMENT, OUT_OF_MEMORY, those of packbuf_select_copy. */
PACKBUF_API packbuf_status packbuf_dlpack(const packbuf_export *what, DLManagedTensorVersioned **out,
                                          packbuf_error *error);
/* The same as DLPack before 1.0 has it. That cannot say read-only: a copy, unless NO_COPY, with which the caller
 * vouches that nobody writes to it. */
PACKBUF_API packbuf_status packbuf_dlpack_unversioned(const packbuf_export *what, DLManagedTensor **out,
                                                      packbuf_error *error);

/* ---- in ---- */

/* Adds the children of a struct (a record batch) as fields of a batch, whose rows are those of all chunks together: a
 * table's chunks are one column each. Schema and arrays are the caller's, who releases them after the batch is written:
 * numbers, lists of numbers, text and bytes stay where they are (in one chunk; numbers of several are copied to the
 * batch's arena). Offsets, lengths, nesting, and buffers that are NULL are checked; how much memory there is Arrow does
 * not say, so that it is the caller's word. Metadata become those of the batch and its fields, but for keys that begin
 * with "ARROW:" or "packbuf."; those of packbuf_add_metadata win. Errors, with the field's path: UNSUPPORTED_DTYPE (a
 * type that there is no place for), INVALID_ARGUMENT (what breaks the ABI's rules), BAD_UTF8 (metadata), BAD_OFFSETS,
 * OUT_OF_RANGE (a dictionary's index), BAD_JSON and BAD_MSGPACK (cells that say they are), BAD_SHAPE (a tensor's
 * cells), DEPTH (64), ROW_COUNT, WRONG_TYPE (no struct), NOT_NULLABLE (a row of the struct that is null),
 * OUT_OF_MEMORY, those of packbuf_add_...; fields before the failing one are added. */
PACKBUF_API packbuf_status packbuf_arrow_import(packbuf_batch *batch, const struct ArrowSchema *schema,
                                                const struct ArrowArray *const *chunks, size_t count,
                                                packbuf_error *error);
/* The same for one array, of any type, as the field `name`. */
PACKBUF_API packbuf_status packbuf_arrow_add(packbuf_batch *batch, const char *name, const struct ArrowSchema *schema,
                                             const struct ArrowArray *const *chunks, size_t count,
                                             packbuf_error *error);

/* A tensor of DLPack for packbuf_add_tensor or packbuf_tensor_value: any strides; nothing is copied but the shape,
 * which is in the arena. Errors: UNSUPPORTED_DEVICE (memory that the processor cannot read), UNSUPPORTED_DTYPE,
 * INVALID_ARGUMENT (dimensions or strides that no memory has, more than 8 dimensions), OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_dlpack_import(const DLTensor *from, packbuf_arena *arena, packbuf_tensor *tensor,
                                                 packbuf_error *error);
