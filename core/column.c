/* core/column.c: what the packing side knows of a column before it is written: where its cells come from, and what was
 * decided about it. Expansion and inference fill it, the codecs and the layout read it.
 * May use: values, arena, packer (recipes). Must not know: how a codec stores cells. */

/* The absent cells that expansion hands out. */
static const packbuf_value packbuf_i_null_cell = {PACKBUF_NULL, {0}};
static const packbuf_value packbuf_i_missing_cell = {PACKBUF_MISSING, {0}};

/* Which cells of a column have a value, where few do: what is done for each then costs by these, not by the rows. */
typedef struct packbuf_i_sparse {
  const uint64_t *there;        /* bitmap of the rows: 1: has a value */
  const uint64_t *nulls;        /* 1: is null; NULL: none is. The rest is missing */
  const uint64_t *before;       /* ones in the words of `there` before each */
  uint64_t words;               /* of the bitmaps */
  uint64_t values, null_values; /* ones in `there` and `nulls` */
} packbuf_i_sparse;

/* N dynamic cells: an array of values, or (children made by expansion) an array of pointers to them. */
typedef struct packbuf_i_rows {
  const packbuf_value *values;          /* cell i is values[i] */
  const packbuf_value *const *pointers; /* or *pointers[i], when this is set */
  const packbuf_i_sparse *sparse;       /* or, when this is set, the pointers are to the cells with a value alone */
  uint64_t count;
} packbuf_i_rows;

PACKBUF_I_RARE static const packbuf_value *packbuf_i_sparse_cell(const packbuf_i_rows *cells, uint64_t row) {
  const packbuf_i_sparse *sparse = cells->sparse;
  const uint64_t word = row >> 6, bit = (uint64_t)1 << (row & 63);
  if (sparse->there[word] & bit)
    return cells->pointers[sparse->before[word] + packbuf_i_count_ones(sparse->there[word] & (bit - 1))];
  return sparse->nulls && sparse->nulls[word] & bit ? &packbuf_i_null_cell : &packbuf_i_missing_cell;
}

static const packbuf_value *packbuf_i_cell(const packbuf_i_rows *cells, uint64_t row) {
  if (PACKBUF_I_UNLIKELY(cells->sparse != NULL)) return packbuf_i_sparse_cell(cells, row);
  return cells->pointers ? cells->pointers[row] : &cells->values[row];
}

/* The first row from `row` on that may have a value: those before it have none. The count, or `row` itself beyond it,
 * when there is none. */
static uint64_t packbuf_i_next_cell(const packbuf_i_rows *cells, uint64_t row) {
  const packbuf_i_sparse *sparse = cells->sparse;
  uint64_t word = row >> 6, bits;
  if (!sparse || row >= cells->count) return row;
  bits = sparse->there[word] >> (row & 63) << (row & 63);
  while (!bits) {
    if (++word == sparse->words) return cells->count;
    bits = sparse->there[word];
  }
  return word << 6 | packbuf_i_first_set(bits);
}

typedef enum packbuf_i_source {
  PACKBUF_I_FROM_CELLS = 0, /* dynamic values */
  PACKBUF_I_FROM_TENSOR,    /* one dense array */
  PACKBUF_I_FROM_RAGGED,    /* data + offsets */
  PACKBUF_I_FROM_TENSORS,   /* one array a row */
  PACKBUF_I_FROM_TEXT       /* text or bytes */
} packbuf_i_source;

/* A node of the batch's structure: dict, list or leaf. Children form a linked list in the order they will be stored. */
typedef struct packbuf_i_node {
  struct packbuf_i_node *parent, *first_child, *last_child, *next;
  const char *name; /* not NUL-terminated; empty for children of a list */
  size_t name_size;
  uint32_t index; /* in the node table, set by the layout; child ordinal of a list before that is its place in the list
                     of children */
  uint8_t scope;  /* 0 field, 1 batch value */
  uint8_t kind;   /* packbuf_node_kind */
  uint64_t rows;
  /* where the cells are */
  packbuf_i_source source;
  packbuf_i_rows cells;          /* FROM_CELLS */
  const packbuf_tensor *tensors; /* FROM_TENSOR (one), FROM_TENSORS (rows of them) */
  const packbuf_ragged *ragged;  /* FROM_RAGGED */
  const packbuf_text *texts;     /* FROM_TEXT */
  const uint8_t *bitmap;         /* validity given by the caller, or NULL */
  const packbuf_device *device;  /* NULL: host */
  /* what inference decided */
  uint8_t codec, form, rank, logical_type; /* codec 0: dict or list */
  uint8_t accepted, typed;                 /* as in packbuf_inferred */
  packbuf_dtype dtype;
  const char *reason;
  const char *parameter; /* UTF-8: serializer's name or the logical type's parameter */
  size_t parameter_size;
  uint64_t shape[PACKBUF_MAX_RANK]; /* ndarray: of one cell */
  uint64_t nulls, missing;          /* cells that are null, missing */
  unsigned flags;                   /* of its schema: PACKBUF_KEEP_PLAIN, PACKBUF_REFUSE_NULL */
  uint8_t packing;                  /* as in packbuf_schema */
  uint8_t mixed_ranks;              /* ragged: an ndims buffer is needed */
  /* what the layout found (filled by the codec's plan) */
  uint64_t elements; /* of its data buffer */
  uint64_t items;    /* media_list_ragged */
  uint64_t *sizes;   /* json, msgpack: bytes of each cell, in the arena */
  const uint8_t *encoded; /* the cells themselves, end to end; NULL: they are encoded when they are written */
  /* row sharing (core/share.c): what is stored comes from `stored` (the node itself when nothing is shared), masks and
   * row_index from the node */
  struct packbuf_i_node *stored;
  uint8_t constant;                           /* all data elements have the same bits: 0 unknown, 1 no, 2 yes */
  const uint64_t *row_index;                  /* of each row, or NULL */
  const uint64_t *kept;                       /* of a stored node: which row of the batch each row is, or NULL */
  const uint64_t *prefix_row, *prefix_length; /* of a stored node, or NULL */
  uint8_t sampled;         /* of the data, all rows: 1: not to be packed, 2: packed as `recipe` says; 0: unknown */
  packbuf_i_recipe recipe; /* (core/packing.c) */
} packbuf_i_node;

/* The state of one expansion (core/expand.c). */
typedef struct packbuf_i_expand {
  packbuf_arena *arena;
  const packbuf_schema *schemas;
  size_t schema_count;
  packbuf_mode mode;
  uint32_t nodes; /* made so far, against the limit */
  packbuf_error *error;
} packbuf_i_expand;

/* Expands and infers node->cells (node->rows of them) under node's path; schema entries may override it. It sets kind,
 * the decision and the counts, and hangs children below the node: a dict or list node's children have
 * packbuf_i_null_cell where the parent's cell is absent, packbuf_i_missing_cell where a key or item is. The root has
 * depth 0. */
static packbuf_status packbuf_i_expand_node(packbuf_i_expand *expand, packbuf_i_node *node, unsigned depth);

/* The codec of a column that stays a leaf (core/infer.c, core/compat.c); `schema` may be NULL. */
static packbuf_status packbuf_i_infer_leaf(packbuf_i_expand *expand, packbuf_i_node *node,
                                           const packbuf_schema *schema);
static packbuf_status packbuf_i_infer_compat(packbuf_i_expand *expand, packbuf_i_node *node);

/* The escaped path of a node, NUL-terminated, in the arena; NULL without memory. */
static char *packbuf_i_node_path(const packbuf_i_node *node, packbuf_arena *arena);

/* Fails with the node's path. */
static packbuf_status packbuf_i_node_fail(const packbuf_i_expand *expand, const packbuf_i_node *node,
                                          packbuf_status code, const char *message, uint64_t offset, uint64_t row);
