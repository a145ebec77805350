/* core/infer.h: what a column of dynamic values would be stored as, and why.
 * May use: values, arena. Must not know: how anything is stored. */

typedef enum packbuf_codec {
  PACKBUF_CODEC_AUTO = 0, /* infer it; in a packed buffer: a dict or list node */
  PACKBUF_CODEC_NULL = 1,
  PACKBUF_CODEC_NDARRAY = 2,
  PACKBUF_CODEC_RAGGED_TENSOR = 3,
  PACKBUF_CODEC_TYPED_RAGGED = 4,
  PACKBUF_CODEC_BYTES_RAGGED = 5,
  PACKBUF_CODEC_MEDIA_BYTES = 6,
  PACKBUF_CODEC_MEDIA_LIST_RAGGED = 7,
  PACKBUF_CODEC_UTF8_RAGGED = 8,
  PACKBUF_CODEC_JSON_RAGGED = 9,
  PACKBUF_CODEC_MSGPACK_RAGGED = 10,
  PACKBUF_CODEC_OPAQUE_RAGGED = 11
} packbuf_codec;

typedef enum packbuf_node_kind { PACKBUF_LEAF = 1, PACKBUF_NODE_DICT = 2, PACKBUF_NODE_LIST = 3 } packbuf_node_kind;

typedef enum packbuf_mode {
  PACKBUF_STRICT = 0, /* the rules of the spec's sections 17 and 18: never changes a value or a type */
  PACKBUF_COMPAT = 1 /* the rules of Mooncake's merged structured codec (numpy promotion), for comparison; packing under
                        it refuses what would change (LOSSY) */
} packbuf_mode;

/* Limits of expansion and inference. */
#define PACKBUF_EXPAND_KEYS 64
#define PACKBUF_EXPAND_ITEMS 8
#define PACKBUF_EXPAND_DEPTH 32
#define PACKBUF_JSON_SAMPLE_ROWS 128
#define PACKBUF_JSON_SAMPLE_BYTES 1048576

/* One node of an inferred structure, in pre-order (children of a dict in first-seen order). */
typedef struct packbuf_inferred {
  const char *path; /* escaped, NUL-terminated, in the arena */
  packbuf_node_kind kind;
  uint32_t parent;      /* index, or UINT32_MAX for the root */
  uint32_t child_count; /* of dict and list */
  int accepted; /* leaf: 0 when the codec is only named as the fallback (compat), or nothing can hold the column */
  packbuf_codec codec;     /* leaf */
  packbuf_dtype dtype;     /* leaf with numbers; {0, 0, 0} else */
  uint8_t rank, form;      /* as in section 4 of the spec */
  uint8_t typed;           /* 1: a types buffer is needed */
  const char *reason;      /* static text: why this codec */
  const uint8_t *present;  /* dict and list: bitmap of the rows that are one (LSB first); leaf: NULL */
  const uint64_t *lengths; /* list: items of each row, 0 where it is none; else NULL */
  uint64_t rows, nulls, missing;
  const packbuf_value *const *sample; /* json_ragged: the cells whose JSON was measured, in the arena; else NULL */
  uint64_t sample_count;
} packbuf_inferred;

typedef struct packbuf_inference {
  packbuf_inferred *nodes;
  uint32_t count;
} packbuf_inference;

/* Expands and infers one column of `count` values; `root` names it (and is escaped like a field's name). The result
 * lies in the arena. Errors: DEPTH (error->path says where), LIMIT (more than 2^20 nodes), OUT_OF_MEMORY, BAD_UTF8 for
 * a text that is not UTF-8 (strict only; with the row). One pass over the values, plus one per level of nesting. */
PACKBUF_API packbuf_status packbuf_infer(const packbuf_value *values, uint64_t count, const char *root,
                                         packbuf_mode mode, packbuf_arena *arena, packbuf_inference *inference,
                                         packbuf_error *error);

/* "utf8_ragged" and the like; NULL for an unknown codec. And back: 0 when there is none of that name. */
PACKBUF_API const char *packbuf_codec_name(packbuf_codec codec);
PACKBUF_API int packbuf_codec_parse(const char *name, packbuf_codec *codec);
