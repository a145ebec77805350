/* core/select.h: selections: some fields and some rows of an open packed buffer; their columns in place or copied out,
 * their rows as values, and the ranges of bytes they lie in, which head and index alone tell.
 * May use: view. Must not know: where bytes come from. */

/* Which rows, before it is known how many there are. Made by the packbuf_select_... calls below; the fields are
 * private. Points to the caller's list or mask until packbuf_select has copied what they say. */
typedef struct packbuf_row_selection {
  uint8_t kind;
  int64_t first, stop, step; /* of a range */
  const void *list;          /* indexes, or a mask */
  uint64_t count;
} packbuf_row_selection;

#define PACKBUF_ROWS_BEGIN INT64_MIN /* for a range: from (or, going down, beyond) the first row */
#define PACKBUF_ROWS_END INT64_MAX   /* for a range: to beyond (or, going down, from) the last row */

/* All rows, in order. */
PACKBUF_API packbuf_row_selection packbuf_rows_all(void);
/* As Python's first:stop:step: negative numbers count from the end, what lies outside is cut off, a negative step goes
 * down. step 0: INVALID_ARGUMENT, from packbuf_select. */
PACKBUF_API packbuf_row_selection packbuf_rows_range(int64_t first, int64_t stop, int64_t step);
/* Rows in any order, with repeats; negative ones count from the end. OUT_OF_RANGE, from packbuf_select, has in
 * error->row the position in the list. */
PACKBUF_API packbuf_row_selection packbuf_rows_index(const int64_t *indexes, uint64_t count);
/* The rows whose byte is not 0, or whose bit (least significant first) is 1, in ascending order. ROW_COUNT when `rows`
 * is not the number of rows. */
PACKBUF_API packbuf_row_selection packbuf_rows_mask(const uint8_t *bytes, uint64_t rows);
PACKBUF_API packbuf_row_selection packbuf_rows_bitmap(const uint8_t *bits, uint64_t rows);

/* Chosen nodes and rows of a view. Fields are for reading; nodes, flags and index lie in the arena. */
typedef struct packbuf_selection {
  const packbuf_view *view;
  const uint32_t *nodes; /* indexes of the chosen nodes and of those above them, in the buffer's order */
  const uint8_t *flags;  /* by node index: 0 not in `nodes`, 1 above a chosen one only, 2 chosen */
  uint32_t node_count;
  uint8_t scope;         /* 0 fields, 1 batch values */
  uint64_t rows;         /* how many rows; row i is index[i], or first + i * step when index is NULL */
  const uint64_t *index; /* each below view->rows */
  uint64_t first;
  int64_t step;
} packbuf_selection;

/* Chooses fields (scope 0) or batch values (scope 1, of one row) by patterns, and rows. A pattern is an escaped path
 * ("meta.step", "calls[0].name"), in which `*` stands for any characters of one name ("old_*", "meta.*"), `[*]` for any
 * item and `**` for any number of steps ("**.role"); `\*` is a star. A pattern with a star has at most 62 steps. It
 * chooses the nodes it matches with all below them; the nodes above come along as structure. "!pattern" takes away what
 * was chosen before it ("\!name" is one that begins so); when the first pattern takes away, all was chosen before.
 * pattern_count 0: all. The order is the buffer's. Media come with their attributes. Patterns and list of rows may go
 * afterwards; the view must stay. Errors: NOT_FOUND with the pattern in error->path when it matches nothing;
 * INVALID_ARGUMENT, with the pattern, when it is no pattern, or a step 0; OUT_OF_RANGE, ROW_COUNT (rows);
 * OUT_OF_MEMORY. Cost: exact paths are looked up, other patterns pass over all nodes. Thread-safe, as is the result. */
PACKBUF_API packbuf_status packbuf_select(const packbuf_view *view, unsigned scope, const char *const *patterns,
                                          size_t pattern_count, packbuf_row_selection rows, packbuf_arena *arena,
                                          packbuf_selection *selection, packbuf_error *error);

/* Row i of a selection, i below selection->rows (not checked), as a row of the batch. */
PACKBUF_API uint64_t packbuf_selected_row(const packbuf_selection *selection, uint64_t i);

/* ---- columns in place ---- */

/* A strided array over a packed buffer. tensor.shape and tensor.strides point into the struct: do not copy it. */
typedef struct packbuf_selected_tensor {
  packbuf_tensor tensor;
  uint64_t shape[PACKBUF_MAX_RANK];
  int64_t strides[PACKBUF_MAX_RANK];
} packbuf_selected_tensor;

/* The chosen rows of an ndarray leaf as one array [rows, cell...] without a copy; rows are a range (any step). Absent
 * cells are zeros: the mask comes with packbuf_select_copy. Read-only: it lies in the packed buffer. Errors: WRONG_TYPE
 * (not an ndarray, or a cell of rank 8); NOT_STORED (rows are a list or shared, or the elements computed, packed or in
 * another byte order), UNALIGNED: copy out; NOT_FETCHED; NOT_FOUND when the selection has not the node. */
PACKBUF_API packbuf_status packbuf_select_tensor(const packbuf_selection *selection, uint32_t node,
                                                 packbuf_selected_tensor *out, packbuf_error *error);

/* The chosen rows of a leaf with offsets (ragged numbers, text, bytes; not media lists) without a copy; rows are a
 * range of step 1. out->offsets (64 bits, rows + 1 of them) count elements of out->data and need not start at 0; cells
 * are flat (item_rank 0); out->validity and out->missing say which are absent. What the offsets hold is as untrusted as
 * the packed buffer: after packbuf_verify, and where no peer can write to the memory, they ascend and do not pass
 * out->items. Errors as above; NOT_STORED also for rows that are shared, and for offsets or masks that are computed
 * (rows of equal length), packed or (masks) do not begin at a byte: copy out. PACKBUF_KEEP_PLAIN in the schema of a
 * field keeps it from being shared and packed. */
PACKBUF_API packbuf_status packbuf_select_ragged(const packbuf_selection *selection, uint32_t node, packbuf_ragged *out,
                                                 packbuf_error *error);

/* ---- columns copied out ---- */

/* How much packbuf_select_copy writes for one node. */
typedef struct packbuf_selected_size {
  uint64_t rows;       /* cells: the chosen rows; of a leaf below a media list: the items of the chosen rows */
  uint64_t elements;   /* of the data */
  uint64_t data_bytes; /* elements x their size (as stored; of packbuf_select_copy: as they were written) */
  uint64_t items;      /* of a media list, else 0 */
  uint32_t rank;       /* ndarray: of a cell; ragged numbers: the largest; else 0 */
  uint64_t shape[PACKBUF_MAX_RANK]; /* ndarray: of a cell */
} packbuf_selected_size;

/* Memory of the caller, any alignment; NULL: not wanted. Numbers are in native byte order, one after the other. */
typedef struct packbuf_select_into {
  void *data;             /* the elements of the chosen cells end to end; absent cells of an ndarray are zeros */
  uint64_t data_capacity; /* bytes */
  packbuf_dtype dtype;    /* what integers and bools become: int or uint of 8 to 64 bits; {0} or as stored: they stay */
  uint64_t rows;          /* how many rows the following have room for */
  void *offsets;          /* rows + 1 (media list: items + 1), from 0: elements of data */
  void *item_offsets;     /* media list: rows + 1, from 0: items */
  uint8_t offset_bits;    /* of both: 32 or 64 (or 0: 64), int32 or int64 */
  uint64_t *lengths;      /* list node: its length in each row */
  uint64_t *shape[PACKBUF_MAX_RANK]; /* ragged numbers: a dimension of each row (0 where it has not so many) */
  uint8_t *ndims;                    /* ragged numbers: dimensions of each row (0: absent) */
  uint8_t *types;                    /* types byte of each row (media list: item); 0 where there is no types buffer */
  uint8_t *validity; /* bitmap of rows, bit 0 first: 1 = value; the bits after the last row of its last byte are 0 */
  uint8_t *missing;  /* likewise: 1 = missing */
  uint64_t items;    /* how many items offsets and types of a media list have room for */
} packbuf_select_into;

/* The exact sizes for any chosen node (dict and list nodes have masks and lengths). Reads the index, no data. Errors:
 * NOT_FOUND, those of packbuf_open_column, the I rules that are broken, LIMIT (D9) when the data pass the limit of
 * decoded bytes or the sum 2^64. */
PACKBUF_API packbuf_status packbuf_select_size(const packbuf_selection *selection, uint32_t node,
                                               packbuf_selected_size *size, packbuf_error *error);

/* Copies what `into` wants. What was sized is checked again while it is copied: nothing is written past a capacity, and
 * offsets and shapes that are written always agree with the data, even where a peer rewrites the packed buffer
 * meanwhile. *size (may be NULL): what there was. Errors: those of packbuf_select_size; CAPACITY; OUT_OF_RANGE when an
 * offset does not fit into 32 bits; WRONG_TYPE when a dtype is asked for and it or the column is not of integers,
 * LOSSY, with row and offset, when an element does not fit it; NOT_FETCHED. After an error the destinations hold
 * anything. */
PACKBUF_API packbuf_status packbuf_select_copy(const packbuf_selection *selection, uint32_t node,
                                               const packbuf_select_into *into, packbuf_selected_size *size,
                                               packbuf_error *error);

/* ---- rows as values ---- */

/* Rows `first` to `first + count` of a selection into rows[count]: dicts of the chosen fields, missing ones left out,
 * null dicts and lists null; a list keeps its length, and items of it that were not chosen are missing. As
 * packbuf_read_rows otherwise. Attributes of media whose media were not chosen are WRONG_TYPE: they are columns. */
PACKBUF_API packbuf_status packbuf_select_values(const packbuf_selection *selection, uint64_t first, uint64_t count,
                                                 packbuf_arena *arena, packbuf_value *rows, packbuf_error *error);

/* ---- ranges of bytes ---- */

/* A stretch of a packed buffer. */
typedef struct packbuf_range {
  uint64_t offset, length; /* bytes from the start of the packed buffer */
} packbuf_range;

enum {
  PACKBUF_RANGES_CHUNKS = 1 /* whole 64 KiB chunks, so that packbuf_verify_fetched checks all that is fetched */
};

/* The bytes of the data section that the selections together need, beside head and index: in order, not overlapping,
 * two with at most `gap` bytes between them joined into one, none empty. Works on a view that has head and index only
 * (packbuf_open_partial with none fetched); once they are fetched, copying out and reading the selections needs nothing
 * more. All selections are of one packed buffer. *ranges is in the arena, whose limit (and limits.decoded_bytes) bounds
 * it. One list: a read for each range of a file, or one read of many ranges. flags: PACKBUF_RANGES_CHUNKS. Errors:
 * those of packbuf_select_size; INVALID_ARGUMENT (flags), OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_select_ranges(const packbuf_selection *selections, size_t count, uint64_t gap,
                                                 unsigned flags, packbuf_arena *arena, packbuf_range **ranges,
                                                 uint64_t *range_count, packbuf_error *error);
