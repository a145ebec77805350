/* core/batch.h: building a batch, its size, and writing it. A batch holds descriptions only: the data stay where
 * the caller has them, unchanged until packbuf_write has returned.
 * May use: values, arena, inference. Must not know: how a packed buffer is read. */

enum {
  PACKBUF_KEEP_PLAIN = 1,  /* zero-copy field, for pointers to every row: stored as it is: nothing of it is packed, its
                              data are never a constant or an alias, no row is shared with another. With a packing of
                              the same entry other than NONE: INVALID_ARGUMENT */
  PACKBUF_REFUSE_NULL = 2, /* refuse (NOT_NULLABLE, with the row) a null or missing cell */
  PACKBUF_IF_PRESENT = 4   /* a batch may lack the path, and the entry then counts for nothing; else NOT_FOUND */
};

/* Whether buffers are packed in blocks (section 20 of the spec), and what may be spent on it. Numbers that are packed
 * take less room and are copied out (packbuf_select_copy), not read in place; text and bytes are never packed. Lossless
 * in any case. */
typedef enum packbuf_packing {
  PACKBUF_PACKING_DEFAULT = 0,  /* of a field: as the options say; of the options: none, or with link_gbits auto */
  PACKBUF_PACKING_NONE = 1,     /* not packed (profile 0). What repeats is stored once all the same, so that a row may
                                   be shared, or in two pieces: for pointers to every row there is PACKBUF_KEEP_PLAIN.
                                   Such a field is stored once with an equal one only if that is plain too */
  PACKBUF_PACKING_BALANCED = 2, /* packed where a sample says that it pays (profile 1) */
  PACKBUF_PACKING_FASTEST = 3,  /* the same without the mode that is slow to write, split (profile 2) */
  PACKBUF_PACKING_SMALLEST = 4, /* the smallest mode of each block, slow to write (profile 3) */
  PACKBUF_PACKING_AUTO = 5      /* one of the others, by options.link_gbits: packbuf_packing_for_link */
} packbuf_packing;

/* The packing with which a batch is soonest on the other side of a link: packed, sent and unpacked one after the other.
 * gbits: the speed of the link in Gb/s (a slower one: 1; 0: not known), divided by the threads that pack, as each has
 * its share of it: 100 Gb/s and four threads at each end are 25.
 *
 *     gbits        packing    because (measured: bench/README.md)
 *     1            SMALLEST   what a slower search saves pays up to 1 to 2 Gb/s
 *     2 to 99      BALANCED   so for 0
 *     100 to 199   FASTEST    from here, split costs a batch of short columns more than it saves
 *     200 on       NONE       plain, copied at both ends or read in place, is there first
 *
 * The numbers are fixed: the answer is the same on every machine, and the packed buffer canonical in the profile that
 * its head names. */
PACKBUF_API packbuf_packing packbuf_packing_for_link(uint32_t gbits);

/* What the caller asks for at a path ("meta.step", as escaped in section 4 of the spec). Zero-initialised members mean
 * "as inferred". An entry whose path the batch does not have (it is misspelt, no row has the key, or another entry
 * keeps what is above it whole) is NOT_FOUND, with the path, when the batch is measured; for one list of schemas that
 * serves batches which lack some of its fields there is PACKBUF_IF_PRESENT. (A manifest ignores it.) An attribute of
 * media ("image.height") is kept as it is: an entry for one is INVALID_ARGUMENT. */
typedef struct packbuf_schema {
  const char *path;
  packbuf_codec codec;   /* a codec other than AUTO also stops expansion at this path. UNENCODABLE, with the row, when a
                            cell does not fit */
  packbuf_dtype dtype;   /* of the numbers, which too stops expansion; bits 0: as inferred. UNENCODABLE, with the row,
                            when a number is not exact in it */
  unsigned flags;        /* PACKBUF_KEEP_PLAIN, PACKBUF_REFUSE_NULL, PACKBUF_IF_PRESENT */
  uint8_t logical_type;  /* 0 none, 1 timestamp */
  uint8_t packing;       /* packbuf_packing of this field alone; 0: as the options say, none if it is kept plain */
  uint8_t batch_value;   /* 1: the path is that of a batch value, 0: of a field */
  const char *parameter; /* of the logical type (timestamp: "s", "ms", "us", "ns", "D"), NULL: none */
} packbuf_schema;

/* How a batch is written. Start from packbuf_default_options(). */
typedef struct packbuf_options {
  uint8_t packing;             /* packbuf_packing of all fields whose schema names none */
  uint8_t alignment_exponent;  /* 6 to 12: buffers start at multiples of 64 to 4096 bytes */
  uint8_t data_checksums;      /* 1: a CRC-32C for each 64 KiB of data (default), 0: none */
  uint8_t row_sharing;         /* 1: equal rows of a field, and common prefixes of 1-D rows, are stored once where that
                                  pays (default; section 19 of the spec), 0: never */
  uint32_t link_gbits;         /* speed of the link that the packed buffer is for, as packbuf_packing_for_link wants it;
                                  0: not known. Counts where packing is AUTO, of the batch or of a field; unless 0 also
                                  where that of the batch is DEFAULT */
  packbuf_mode mode;           /* of inference */
  uint8_t row_order_token[16]; /* zero, or the token that fragments with the same rows in the same order share */
  const packbuf_schema *schemas; /* schema_count of them, the caller's */
  size_t schema_count;
} packbuf_options;

/* Plain, alignment 64, checksums, strict, no schema. */
PACKBUF_API packbuf_options packbuf_default_options(void);

/* A batch under construction. The fields are private. Not thread-safe: one batch, one thread at a time. */
typedef struct packbuf_batch {
  packbuf_arena *arena;
  packbuf_options options;
  uint64_t rows;
  uint8_t kind; /* 0 or 1 batch, 2 manifest */
  struct packbuf_i_field *first, *last;
  struct packbuf_i_pair *pairs, *last_pair;
  struct packbuf_i_plan *plan;
} packbuf_batch;

/* Starts a batch of `rows` rows; everything that building and writing it needs comes from the arena. options NULL: the
 * defaults. The batch is gone when the arena is. Errors: INVALID_ARGUMENT for options out of range; for a schema that
 * asks for a packing that there is not, or to pack what is kept plain, with its path. */
PACKBUF_API packbuf_status packbuf_batch_init(packbuf_batch *batch, uint64_t rows, packbuf_arena *arena,
                                              const packbuf_options *options, packbuf_error *error);

/* All packbuf_add_... calls: `name` is UTF-8, NUL-terminated and the caller's; fields keep the order of the calls.
 * Descriptions are copied, data are not. Errors: BAD_UTF8 (name), ROW_COUNT, INVALID_ARGUMENT, UNSUPPORTED_DTYPE,
 * UNSUPPORTED_DEVICE, OUT_OF_MEMORY; the batch is then as it was. What needs a look at all names or data comes from
 * packbuf_measure: DUPLICATE_NAME, NOT_FOUND (paths), OUT_OF_RANGE (offsets), BAD_UTF8 (cells), and what inference and
 * the schema refuse; the batch is then begun anew. */

/* A dense array of shape [rows, ...], any strides: codec ndarray. validity: bitmap of `rows` bits, LSB first, 1 =
 * present (NULL: all are). A cell reads back as a number (form NATURAL, rank 1) or as array or tensor. */
PACKBUF_API packbuf_status packbuf_add_tensor(packbuf_batch *batch, const char *name, const packbuf_tensor *tensor,
                                              const uint8_t *validity, packbuf_error *error);

/* Ragged rows in one array: row i is items offsets[i] to offsets[i+1], or offsets[i] to offsets[i] + lengths[i]; an
 * item is an array of the trailing shape `item_shape`. */
typedef struct packbuf_ragged {
  const void *data;
  packbuf_dtype dtype;
  uint8_t form;               /* TENSOR (default), ARRAY or LIST */
  uint8_t item_rank;          /* 0 to 7: dimensions of one item; rows have item_rank + 1 */
  uint8_t offset_bits;        /* 32 or 64: offsets and lengths are int32 or int64 in native order */
  const uint64_t *item_shape; /* item_rank numbers */
  int64_t item_stride; /* bytes from one item to the next; 0: items lie side by side. An item itself is contiguous */
  uint64_t items;      /* items that data holds: offsets may not pass it */
  const void *offsets; /* rows + 1 of them, or rows when there are lengths; need not start at 0 */
  const void *lengths; /* NULL, or rows of them */
  const uint8_t *validity; /* NULL, or a bitmap; the extent of an absent row is ignored */
  const packbuf_device *device;
  const uint8_t *missing; /* NULL, or a bitmap: which rows that validity lacks are missing; the others are null */
} packbuf_ragged;

/* Codec ragged_tensor (form TENSOR) or typed_ragged. Offsets that descend or pass `items` are OUT_OF_RANGE, with the
 * row, when measured. */
PACKBUF_API packbuf_status packbuf_add_ragged(packbuf_batch *batch, const char *name, const packbuf_ragged *ragged,
                                              packbuf_error *error);

/* One tensor a row, each with its own shape and strides, all of one dtype and form; tensors[i].dtype.bits == 0 makes
 * row i null. Codec ragged_tensor or typed_ragged. */
PACKBUF_API packbuf_status packbuf_add_tensors(packbuf_batch *batch, const char *name, const packbuf_tensor *tensors,
                                               packbuf_error *error);

/* A cell of text or bytes; data NULL makes the row null. */
typedef struct packbuf_text {
  const char *data;
  size_t size;
} packbuf_text;

/* `rows` strings (codec utf8_ragged; BAD_UTF8 with row and offset in the text when measured) or byte strings (codec
 * bytes_ragged). */
PACKBUF_API packbuf_status packbuf_add_strings(packbuf_batch *batch, const char *name, const packbuf_text *cells,
                                               packbuf_error *error);
PACKBUF_API packbuf_status packbuf_add_bytes(packbuf_batch *batch, const char *name, const packbuf_text *cells,
                                             packbuf_error *error);

/* `rows` dynamic values: expanded and inferred (sections 17 and 18 of the spec). */
PACKBUF_API packbuf_status packbuf_add_values(packbuf_batch *batch, const char *name, const packbuf_value *values,
                                              packbuf_error *error);

/* `rows` dicts: each key becomes a field (in first-seen order; a row without the key is missing). WRONG_TYPE, with the
 * row, when a row is no dict or a key no string. */
PACKBUF_API packbuf_status packbuf_add_rows(packbuf_batch *batch, const packbuf_value *rows, packbuf_error *error);

/* A value of the batch as a whole (one row); *value is copied, what it points to is not. */
PACKBUF_API packbuf_status packbuf_add_batch_value(packbuf_batch *batch, const char *name, const packbuf_value *value,
                                                   packbuf_error *error);

/* A string pair of the whole buffer (path NULL) or of a field ("a.b"; found when measured: NOT_FOUND). Neither string
 * is copied. */
PACKBUF_API packbuf_status packbuf_add_metadata(packbuf_batch *batch, const char *path, const char *key,
                                                const char *text, packbuf_error *error);

/* The room that packbuf_write wants: exactly what it will write when nothing is packed; else the most that can become
 * of it, all data as long as they are plain. Expands, infers, lays out and, where packing is asked for, looks at a
 * sample of the data; the result is kept until something is added. Errors: those of inference and encoding, with path
 * and row. */
PACKBUF_API packbuf_status packbuf_measure(packbuf_batch *batch, uint64_t *size, packbuf_error *error);

/* Writes the packed buffer to dst (any alignment; 64 lets readers use typed pointers), which has room for as many bytes
 * as packbuf_measure says. *size: bytes written, at most that many; on CAPACITY what is needed. size may be NULL
 * (packbuf_peek tells it too). What lies behind them in dst may have been written to. On failure dst holds no valid
 * packed buffer. */
PACKBUF_API packbuf_status packbuf_write(packbuf_batch *batch, void *dst, uint64_t capacity, uint64_t *size,
                                         packbuf_error *error);

/* Measures, takes 64-byte aligned (or as the options say) memory from the batch's arena, and writes there: *data, *size
 * bytes, which are the arena's; room that packing left over is given back. Errors: those of packbuf_write;
 * OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_pack(packbuf_batch *batch, void **data, uint64_t *size, packbuf_error *error);

/* ---- parts: writing with many threads (packbuf_threads.h does all of this) ---- */

#define PACKBUF_MAX_PARTS 65536u

/* Divides the writing of the batch, measured if it is not yet, into parts of about the same number of bytes: `wanted`
 * (1 or more), or fewer; *parts says how many. Goes over the rows once, not over the data. Like packbuf_measure a call
 * for one thread; what it finds is kept in the batch's arena until something is added or another number is wanted.
 * Errors: those of packbuf_measure; INVALID_ARGUMENT (wanted is 0), OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_write_split(packbuf_batch *batch, uint32_t wanted, uint32_t *parts,
                                               packbuf_error *error);

/* Writes part 0 to *parts - 1 to its place in the packed buffer at dst. Takes no memory, and changes nothing of the
 * batch but what is this part's own (headers of blocks that it packs): any number of threads may write parts of one
 * batch at the same time, each with an error of its own; a device's copy hook is then called from all of them. Errors:
 * those of packbuf_write; INVALID_ARGUMENT without packbuf_write_split. */
PACKBUF_API packbuf_status packbuf_write_part(const packbuf_batch *batch, uint32_t part, void *dst, uint64_t capacity,
                                              packbuf_error *error);

/* Closes what the parts left: moves what was packed together, writes index (where it depends on that) and head. dst
 * then holds what packbuf_write would have written, byte for byte, whatever the number of parts and their order; *size
 * bytes of it (size may be NULL). Takes no memory. Errors: INVALID_ARGUMENT (not measured, no dst; where data are
 * packed also when parts were not written since packbuf_write_split or a packbuf_write or packbuf_write_finish),
 * CAPACITY. */
PACKBUF_API packbuf_status packbuf_write_finish(const packbuf_batch *batch, void *dst, uint64_t capacity,
                                                uint64_t *size, packbuf_error *error);

/* ---- not into one block of memory ---- */

/* Takes `size` bytes of the packed buffer that begin at its byte `offset`. Any status but OK ends the writing. */
typedef packbuf_status (*packbuf_write_at)(void *context, uint64_t offset, const void *bytes, size_t size);

/* Writes the packed buffer through a callback (pwrite, say): the data from front to back, then the index, the head
 * last, so that what was broken off is no packed buffer. Each byte is put once. It holds `window` bytes (0: 1 MiB; more
 * when a JSON or MessagePack cell is larger), the head and 4 bytes for each 64 KiB of data, and gives them back to the
 * arena. Errors: those of packbuf_write; the callback's, with the offset. */
PACKBUF_API packbuf_status packbuf_write_through(packbuf_batch *batch, packbuf_write_at put, void *context,
                                                 uint64_t window, packbuf_error *error);

/* A segment of memory: struct iovec and struct ibv_sge say no more. */
typedef struct packbuf_segment {
  const void *bytes;
  uint64_t size;
} packbuf_segment;

/* How a batch becomes a list of segments. Start from zero. */
typedef struct packbuf_scatter {
  uint64_t least;   /* shorter runs of the caller's memory are copied to the staging memory; 0: 4096, below which a
                       segment costs more than the copy */
  uint64_t most;    /* bytes of one segment, 0: no limit. ibv_sge: UINT32_MAX */
  uint64_t count;   /* set by packbuf_scatter_measure: segments */
  uint64_t staging; /* and bytes of staging memory: head, index, padding, and data that are short, computed, on a device
                       or in other byte order */
} packbuf_scatter;

/* How many segments and how much staging memory the list takes, exactly. Errors: those of packbuf_measure;
 * INVALID_ARGUMENT, also when a buffer is packed: it does not lie in the caller's memory. */
PACKBUF_API packbuf_status packbuf_scatter_measure(packbuf_batch *batch, packbuf_scatter *scatter,
                                                   packbuf_error *error);

/* Lists scatter->count segments that, one after the other, are the bytes of packbuf_write. They lie in `staging`
 * (scatter->staging bytes, any alignment) and in the memory that the batch describes, which must not change as long as
 * they are used. With data_checksums that memory is read once; without it is not touched, but for bools, which must be
 * 0 or 1. Errors: those of packbuf_write; INVALID_ARGUMENT also when the batch is another than the measured one. */
PACKBUF_API packbuf_status packbuf_scatter_list(packbuf_batch *batch, const packbuf_scatter *scatter,
                                                packbuf_segment *segments, void *staging, packbuf_error *error);

/* ---- before any data are there ---- */

/* Upper bound of what packbuf_measure says of dense, ragged, string and bytes fields (alignment 64, no nested values),
 * before any of them exists: a field has a node and at most 4 + rank buffers, each of which may cost a record, padding
 * and (offsets, shape, masks) up to 8 bytes a row; data cost their bytes and one checksum per 64 KiB. rank_sum: sum of
 * the ranks of ragged rows, 0 for the others; text_bytes: names, shapes (8 bytes a dimension), parameters and metadata
 * (32 bytes more a pair). A packed batch
 * takes block headers besides, 16 bytes for each 8 KiB, with padding. Saturates at UINT64_MAX. */
/* clang-format off */
#define PACKBUF_BOUND(fields, rank_sum, rows, text_bytes, data_bytes)                                          \
  (PACKBUF_BOUND_PLAIN(fields, rank_sum, rows, text_bytes, data_bytes) +                                       \
   PACKBUF_BOUND_PLAIN(fields, rank_sum, rows, text_bytes, data_bytes) / 512 +                                 \
   ((uint64_t)(fields) * 4 + (uint64_t)(rank_sum)) * 80)
#define PACKBUF_BOUND_PLAIN(fields, rank_sum, rows, text_bytes, data_bytes) /* of a batch that is not packed */ \
  ((uint64_t)640 + (uint64_t)(fields) * (68 + 4 * 128) + (uint64_t)(rank_sum) * 128 + (uint64_t)(text_bytes) + \
   ((uint64_t)(fields) * 2 + (uint64_t)(rank_sum)) * 8 * ((uint64_t)(rows) + 1) + (uint64_t)(data_bytes) +     \
   ((uint64_t)(data_bytes) + (uint64_t)(fields) * 64) / 65536 * 4)
/* clang-format on */
PACKBUF_API uint64_t packbuf_bound(uint64_t fields, uint64_t rank_sum, uint64_t rows, uint64_t text_bytes,
                                   uint64_t data_bytes);
