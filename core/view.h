/* core/view.h: reading a packed buffer in place. A view owns nothing and allocates nothing; it may be copied, and any
 * number of threads may read through one. Every number that comes from the bytes is read once, checked, and the
 * checked copy is used: memory that a peer rewrites meanwhile gives wrong values or errors, never an access out of
 * bounds.
 * May use: values, arena. Must not know: how a batch is built. */

/* Limits on what untrusted bytes may ask for (section 15 of the spec). */
typedef struct packbuf_limits {
  uint64_t head_bytes;    /* length of the head */
  uint64_t rows;          /* rows of the batch */
  uint64_t decoded_bytes; /* what one call unpacks, takes from the arena, or looks through as text or bools */
  uint64_t cell_bytes;    /* a JSON or MessagePack cell */
  uint32_t nodes, buffers, metadata;
  uint32_t depth;      /* nodes on a path, at most 256 */
  uint32_t cell_depth; /* lists and dicts inside a JSON or MessagePack cell, at most 4096; 0: 512 */
} packbuf_limits;

/* 1 GiB of head, 2^48 rows, 1 TiB decoded, 1 GiB a cell; 2^20 nodes, 2^22 buffers, 2^16 pairs, depth 64 and 512. */
PACKBUF_API packbuf_limits packbuf_default_limits(void);

/* A range of a packed buffer that was fetched: its bytes offset to offset + length lie at `bytes` (any alignment). */
typedef struct packbuf_fetched {
  uint64_t offset, length;
  const void *bytes;
} packbuf_fetched;

/* An open packed buffer: the checked copy of its header and directory. Fields are for reading. */
typedef struct packbuf_view {
  const uint8_t *base;
  uint64_t capacity; /* bytes at base that may be read */
  uint64_t total_length, head_length, index_length, rows;
  uint32_t node_count, buffer_count, metadata_count, name_count, field_count, value_count;
  uint32_t optional_features, head_checksum, index_checksum;
  uint32_t checksum_room; /* zero bytes after the data checksums, in units of the alignment */
  uint16_t version_minor, profile;
  uint16_t node_stride, buffer_stride, metadata_stride, name_stride;
  uint8_t kind; /* 1 batch, 2 manifest */
  uint8_t alignment_exponent;
  uint8_t row_order_token[16];
  uint64_t nodes_at, buffers_at, metadata_at, names_at, strings_at, strings_length; /* offsets of the tables */
  packbuf_limits limits;
  const packbuf_fetched *fetched; /* of a partial view: what was fetched beside the bytes at base, ascending */
  uint64_t fetched_count;
} packbuf_view;

enum {
  PACKBUF_OPEN_EXACT = 1, /* size must equal the packed buffer's length: a file, or an object of a store */
  /* check every record too (rules N, B, M, S), as packbuf_verify at level head does: some 10 ns a record */
  PACKBUF_OPEN_TABLES = 2
};

/* Opens `size` bytes at `data` (any alignment): checks header, directory and checksum of the head (rules H), touches
 * nothing but the head, allocates nothing: little more than one pass of CRC-32C over the head. Each record is checked
 * when it is read, so that what follows is memory-safe whatever the records say; from a stranger, also verify. limits
 * NULL: the defaults. The bytes must stay there as long as the view and whatever was read in place from it are used. */
PACKBUF_API packbuf_status packbuf_open(packbuf_view *view, const void *data, uint64_t size, unsigned flags,
                                        const packbuf_limits *limits, packbuf_error *error);

/* Opens a packed buffer of which only ranges were fetched: its first `size` bytes at `head_and_index` (at least as many
 * as packbuf_peek says), and those in fetched[count], ascending and not overlapping, each anywhere in memory. What lies
 * elsewhere is refused: NOT_FETCHED, with the offset of the first byte that is not there, path and row; nothing else is
 * ever touched. Which ranges a reader will want packbuf_select_ranges tells, on a view that has none yet. flags:
 * PACKBUF_OPEN_TABLES. Ranges and array must stay as long as the view is used. A cell that lies in two of them is read
 * as a copy. packbuf_verify goes up to level index here; for the data there is packbuf_verify_fetched. Errors: those of
 * packbuf_open; TRUNCATED when head and index are not all there; INVALID_ARGUMENT for ranges that are not in order or
 * pass the end. */
PACKBUF_API packbuf_status packbuf_open_partial(packbuf_view *view, const void *head_and_index, uint64_t size,
                                                const packbuf_fetched *fetched, uint64_t count, unsigned flags,
                                                const packbuf_limits *limits, packbuf_error *error);

/* How many bytes from the start of a packed buffer are needed to open it and find everything (head + index), from its
 * first 64 bytes. */
PACKBUF_API packbuf_status packbuf_peek(const void *data, uint64_t size, uint64_t *head_and_index, uint64_t *total,
                                        packbuf_error *error);

typedef enum packbuf_level {
  PACKBUF_LEVEL_HEAD = 0,  /* the H, N, B, M and S rules: header and every record of the head */
  PACKBUF_LEVEL_INDEX = 1, /* and the I rules: checksum, padding, masks, offsets, shapes */
  PACKBUF_LEVEL_FULL = 2   /* and the D rules: data checksums, padding, bools, UTF-8, JSON, MessagePack */
} packbuf_level;

/* Verifies up to a level; the error names rule, byte offset, path and row. Reads all it verifies, allocates nothing. */
PACKBUF_API packbuf_status packbuf_verify(const packbuf_view *view, packbuf_level level, packbuf_error *error);

/* Checks the data checksums of the 64 KiB chunks that were fetched whole, of which *chunks (NULL: not wanted) is the
 * number; 0 where the packed buffer has no checksums. Verify the index first: the checksums lie there. DATA_CHECKSUM
 * (rule D1). Ranges that consist of whole chunks: PACKBUF_RANGES_CHUNKS. */
PACKBUF_API packbuf_status packbuf_verify_fetched(const packbuf_view *view, uint64_t *chunks, packbuf_error *error);

#define PACKBUF_NO_NODE UINT32_MAX

/* One node: the checked copy of its record. Pointers are into the packed buffer. */
typedef struct packbuf_node {
  uint32_t index, parent, descendants, first_buffer, buffer_count;
  packbuf_node_kind kind;
  uint8_t scope;                    /* 0 field, 1 batch value */
  uint8_t codec;                    /* packbuf_codec, or a number that this version does not know */
  uint8_t form, rank, logical_type; /* rank and shape are those of one cell: an array of [rows, T] has rank 1 */
  packbuf_dtype dtype;
  uint64_t rows;
  packbuf_text name, parameter;     /* not NUL-terminated */
  uint64_t shape[PACKBUF_MAX_RANK]; /* ndarray: the shape of a cell */
} packbuf_node;

/* The node at an index (0 to view->node_count - 1, pre-order: the next sibling is at index + 1 + descendants; the first
 * field, then the first batch value, at the top). Errors: OUT_OF_RANGE, and the N rules. */
PACKBUF_API packbuf_status packbuf_get_node(const packbuf_view *view, uint32_t index, packbuf_node *node,
                                            packbuf_error *error);

/* The node of an escaped path such as "meta.step", "calls[0].name", "a\\.b", among the fields (scope 0) or the batch
 * values (scope 1). Binary search. NOT_FOUND. */
PACKBUF_API packbuf_status packbuf_find(const packbuf_view *view, unsigned scope, const char *path, packbuf_node *node,
                                        packbuf_error *error);

/* The escaped path of a node into `path`, at most `size` bytes with its NUL; returns its whole length. */
PACKBUF_API size_t packbuf_node_path(const packbuf_view *view, uint32_t index, char *path, size_t size);

typedef enum packbuf_role {
  PACKBUF_ROLE_DATA = 1,
  PACKBUF_ROLE_OFFSETS = 2,
  PACKBUF_ROLE_LENGTHS = 3,
  PACKBUF_ROLE_SHAPE = 4,
  PACKBUF_ROLE_NDIMS = 5,
  PACKBUF_ROLE_VALIDITY = 6,
  PACKBUF_ROLE_MISSING = 7,
  PACKBUF_ROLE_TYPES = 8,
  PACKBUF_ROLE_ITEM_OFFSETS = 9,
  PACKBUF_ROLE_ROW_INDEX = 10,
  PACKBUF_ROLE_PREFIX_ROW = 11,
  PACKBUF_ROLE_PREFIX_LENGTH = 12
} packbuf_role;

typedef enum packbuf_storage {
  PACKBUF_STORED = 1,
  PACKBUF_INLINE = 2,
  PACKBUF_CONSTANT = 3,
  PACKBUF_SEQUENCE = 4,
  PACKBUF_ALIAS = 5
} packbuf_storage;

/* One buffer: the checked copy of its record. */
typedef struct packbuf_buffer {
  uint32_t index, node, alias_of;
  uint8_t role, dim, storage, packing;
  packbuf_dtype dtype;
  uint64_t count;              /* elements */
  uint64_t offset, length;     /* where the stored bytes lie, from the start of the packed buffer; 0 for constant and
                                  sequence. Inline: in the record */
  const uint8_t *bytes;        /* plain little-endian elements of storage stored, inline and alias; NULL else */
  const packbuf_view *partial; /* stored, but not fetched in one range (bytes is NULL then): the view; NULL else */
  const uint8_t *headers;      /* packed in blocks: the block headers (section 20 of the spec); NULL else */
  const uint8_t *payload;      /* and what they tell of; NULL when that was not fetched in one range */
  uint64_t headers_at;         /* where the headers lie, from the start of the packed buffer */
  struct packbuf_i_unit_window *window; /* private: NULL */
  uint8_t value[16];                    /* constant and sequence (start, step), little-endian */
} packbuf_buffer;

/* The buffer of a node by role (and dim, for shape), or by index in the buffer table. NOT_FOUND when there is none. */
PACKBUF_API packbuf_status packbuf_get_buffer(const packbuf_view *view, const packbuf_node *node, packbuf_role role,
                                              unsigned dim, packbuf_buffer *buffer, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_get_buffer_at(const packbuf_view *view, uint32_t index, packbuf_buffer *buffer,
                                                 packbuf_error *error);

/* The elements as a typed pointer, without a copy. Errors: WRONG_TYPE when `dtype` is not the buffer's; NOT_STORED
 * (constant, sequence, packed, or a big-endian machine); UNALIGNED; UNSUPPORTED_PACKING. Then copy out, rows with
 * packbuf_select_copy: which one it is depends on the data (elements that are all equal are stored once), unless the
 * field was written with PACKBUF_KEEP_PLAIN. These are the stored elements, as in packbuf_copy_elements. */
PACKBUF_API packbuf_status packbuf_get_typed(const packbuf_buffer *buffer, packbuf_dtype dtype, const void **elements,
                                             packbuf_error *error);

/* Copies elements `first` to `first + count` in native byte order to dst. 1-bit elements: first must be a multiple of
 * 8. Counts the elements that are stored: where rows are shared (the node has a buffer of role ROW_INDEX or PREFIX_ROW)
 * these are not the rows of the batch one after the other. Rows are copied out with packbuf_select_copy. Errors:
 * OUT_OF_RANGE, CAPACITY, LIMIT, UNSUPPORTED_PACKING. */
PACKBUF_API packbuf_status packbuf_copy_elements(const packbuf_view *view, const packbuf_buffer *buffer, uint64_t first,
                                                 uint64_t count, void *dst, uint64_t capacity, packbuf_error *error);

/* The same for integers (int, uint, bool) as another int or uint of 8 to 64 bits: int64 that was stored, packed or not,
 * as int32, say, without a second pass. Counts stored elements too: these are the rows, one after the other, only of
 * leaves that share none, as when row_sharing is 0 in packbuf_options or the field was written with PACKBUF_KEEP_PLAIN;
 * rows of others come from packbuf_select_copy, whose `dtype` does the same. Errors: those above; WRONG_TYPE when one
 * of the two is no integer; LOSSY, with the element's offset, when one does not fit, dst then partly written. */
PACKBUF_API packbuf_status packbuf_convert_elements(const packbuf_view *view, const packbuf_buffer *buffer,
                                                    uint64_t first, uint64_t count, packbuf_dtype dtype, void *dst,
                                                    uint64_t capacity, packbuf_error *error);

/* How a block of a packed buffer is stored (section 20 of the spec). */
typedef enum packbuf_block_mode {
  PACKBUF_BLOCK_PLAIN = 0,
  PACKBUF_BLOCK_LINE = 1,
  PACKBUF_BLOCK_FRAME = 2,
  PACKBUF_BLOCK_ZERO = 3,
  PACKBUF_BLOCK_SPLIT = 4,
  PACKBUF_BLOCK_DICTIONARY = 5
} packbuf_block_mode;

typedef struct packbuf_block {
  uint8_t mode;   /* packbuf_block_mode */
  uint8_t filled; /* 1: rows of 128 bytes that are all the fill are not stored */
  uint8_t width, shift, extra;
  uint64_t base;
  uint64_t offset, length; /* of its payload, from the start of the packed buffer */
  uint64_t count;          /* elements (of a bitmap: bytes) in the block */
} packbuf_block;

/* "plain", "line", "frame", "zero", "split", "dictionary"; "unknown". */
PACKBUF_API const char *packbuf_block_mode_name(unsigned mode);

/* The blocks of a buffer: 0 when it is not packed. */
PACKBUF_API uint64_t packbuf_block_count(const packbuf_buffer *buffer);

/* Block `index`. Errors: OUT_OF_RANGE; BAD_BLOCK with its offset. */
PACKBUF_API packbuf_status packbuf_get_block(const packbuf_buffer *buffer, uint64_t index, packbuf_block *block,
                                             packbuf_error *error);

/* A column that is ready to be read cell by cell: node and buffers, looked up once. Where rows are shared (section 9 of
 * the spec) all buffers but the masks are those of the stored rows. Fields are for reading. */
typedef struct packbuf_column {
  const packbuf_view *view;
  packbuf_node node;
  packbuf_buffer data, offsets, validity, missing, types, ndims, item_offsets, lengths; /* absent: storage 0 */
  packbuf_buffer shape[PACKBUF_MAX_RANK];
  packbuf_buffer row_index, prefix_row, prefix_length;
  uint64_t stored_rows; /* of a leaf; without a row_index its rows */
} packbuf_column;

/* Looks up the node at an index and its buffers. Errors: UNSUPPORTED_CODEC, UNSUPPORTED_ROLE, UNSUPPORTED_PACKING,
 * UNSUPPORTED_DTYPE name what cannot be read; the other columns can. */
PACKBUF_API packbuf_status packbuf_open_column(const packbuf_view *view, uint32_t node, packbuf_column *column,
                                               packbuf_error *error);

/* 1 value, 0 null, -1 missing; OUT_OF_RANGE. */
PACKBUF_API packbuf_status packbuf_cell_state(const packbuf_column *column, uint64_t row, int *state,
                                              packbuf_error *error);
/* The stored row that holds a cell, for those who keep what is shared: equal numbers mean equal cells. An absent cell
 * of a column that shares rows: UINT64_MAX. Errors: OUT_OF_RANGE, and rule I13. */
PACKBUF_API packbuf_status packbuf_stored_row(const packbuf_column *column, uint64_t row, uint64_t *stored,
                                              packbuf_error *error);

/* A piece of a column's data: elements (bytes; items of media_list_ragged) first to first + count. */
typedef struct packbuf_piece {
  uint64_t first, count;
} packbuf_piece;

/* Where a cell of a leaf lies: one piece after the other are its elements, at most two (a prefix that is another row's,
 * then its own), none of them empty. 0 pieces for an empty cell and for an absent one of a ragged leaf or of a leaf
 * that shares rows. Errors: OUT_OF_RANGE, and rules I7, I13, I14. */
PACKBUF_API packbuf_status packbuf_cell_pieces(const packbuf_column *column, uint64_t row, packbuf_piece pieces[2],
                                               unsigned *count, packbuf_error *error);
/* The elements (bytes, items) of a cell of a leaf: data[first .. first + count); ndarray: product(shape) of them. 0 for
 * an absent cell of a ragged leaf. NOT_STORED when the cell is in two pieces (packbuf_cell_pieces). */
PACKBUF_API packbuf_status packbuf_cell_extent(const packbuf_column *column, uint64_t row, uint64_t *first,
                                               uint64_t *count, packbuf_error *error);
/* The shape of a cell of numbers; shape has room for PACKBUF_MAX_RANK. */
PACKBUF_API packbuf_status packbuf_cell_shape(const packbuf_column *column, uint64_t row, unsigned *rank,
                                              uint64_t *shape, packbuf_error *error);
/* A cell's bytes in place (the data of its elements; text, bytes, JSON, MessagePack, media). NULL and 0 when absent.
 * Errors: WRONG_TYPE (a dict, a list, a media list, codec null); NOT_STORED when the data are a constant or packed, or
 * the cell is in two pieces: copy it out; NOT_FETCHED. */
PACKBUF_API packbuf_status packbuf_cell_bytes(const packbuf_column *column, uint64_t row, const void **bytes,
                                              uint64_t *size, packbuf_error *error);

/* A cell as a value: numbers, text and tensors point into the packed buffer where they can, the rest is in the arena
 * (whose limit, and limits.decoded_bytes, bound it). Cells of dict and list nodes are read with all below them. */
PACKBUF_API packbuf_status packbuf_read_cell(const packbuf_view *view, uint32_t node, uint64_t row,
                                             packbuf_arena *arena, packbuf_value *value, packbuf_error *error);
/* Rows `first` to `first + count` of one node into values[count]; what does not depend on the row is done once. */
PACKBUF_API packbuf_status packbuf_read_column(const packbuf_view *view, uint32_t node, uint64_t first, uint64_t count,
                                               packbuf_arena *arena, packbuf_value *values, packbuf_error *error);
/* Row `row` of all fields as a dict (missing fields left out), or all batch values as a dict. */
PACKBUF_API packbuf_status packbuf_read_row(const packbuf_view *view, uint64_t row, packbuf_arena *arena,
                                            packbuf_value *value, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_read_batch_values(const packbuf_view *view, packbuf_arena *arena,
                                                     packbuf_value *value, packbuf_error *error);
/* Rows `first` to `first + count` of all fields as dicts, into rows[count]. OUT_OF_RANGE. */
PACKBUF_API packbuf_status packbuf_read_rows(const packbuf_view *view, uint64_t first, uint64_t count,
                                             packbuf_arena *arena, packbuf_value *rows, packbuf_error *error);

/* A metadata pair; node is PACKBUF_NO_NODE for one of the whole buffer. */
typedef struct packbuf_metadata {
  uint32_t node;
  packbuf_text key, text;
} packbuf_metadata;

/* The pair at an index (0 to view->metadata_count - 1). Errors: OUT_OF_RANGE, and rule M3. */
PACKBUF_API packbuf_status packbuf_get_metadata(const packbuf_view *view, uint32_t index, packbuf_metadata *metadata,
                                                packbuf_error *error);
