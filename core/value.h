/* core/value.h: dtypes and the dynamic value: one cell of a batch as a program holds it. Values are plain structs that
 * point to the caller's memory: packbuf copies nothing until it writes a packed buffer.
 * May use: core/status.h. Must not know: how anything is stored. */

/* An element type as DLPack names it: code, bits per lane, lanes (1). Elements are in native byte order in memory,
 * little-endian in a packed buffer. */
typedef struct packbuf_dtype {
  uint8_t code; /* packbuf_dtype_code */
  uint8_t bits;
  uint16_t lanes;
} packbuf_dtype;

typedef enum packbuf_dtype_code {
  PACKBUF_DTYPE_INT = 0,
  PACKBUF_DTYPE_UINT = 1, /* 1 bit: bitmaps, least significant bit first */
  PACKBUF_DTYPE_FLOAT = 2,
  PACKBUF_DTYPE_BFLOAT = 4,
  PACKBUF_DTYPE_COMPLEX = 5,
  PACKBUF_DTYPE_BOOL = 6,
  PACKBUF_DTYPE_FLOAT8_E4M3FN = 10,
  PACKBUF_DTYPE_FLOAT8_E5M2 = 12
} packbuf_dtype_code;

#define PACKBUF_MAX_RANK 8

/* The dtype (code, bits, 1). */
PACKBUF_API packbuf_dtype packbuf_dtype_of(packbuf_dtype_code code, unsigned bits);
/* "int64", "bfloat16", "float8_e4m3fn", ...; NULL for a dtype that packbuf does not know. Static string. */
PACKBUF_API const char *packbuf_dtype_name(packbuf_dtype dtype);
/* The dtype of such a name; returns 0 when there is none, else 1. */
PACKBUF_API int packbuf_dtype_parse(const char *name, packbuf_dtype *dtype);

typedef enum packbuf_kind {
  PACKBUF_NULL = 0,
  PACKBUF_MISSING = 1, /* the key or index does not exist in this row: not the same as null */
  PACKBUF_BOOL = 2,
  PACKBUF_INT = 3,    /* int64 */
  PACKBUF_UINT = 4,   /* uint64; equal to PACKBUF_INT of the same number */
  PACKBUF_BIGINT = 5, /* beyond both: decimal text -?[1-9][0-9]* */
  PACKBUF_FLOAT = 6,  /* float64, kept bit for bit */
  PACKBUF_STRING = 7, /* UTF-8 */
  PACKBUF_BYTES = 8,
  PACKBUF_MEDIA = 9,   /* an encoded file or raw pixels, with attributes */
  PACKBUF_OPAQUE = 10, /* bytes of a named serializer that packbuf never runs */
  PACKBUF_TENSOR = 11, /* tensor, array or typed scalar */
  PACKBUF_LIST = 12,
  PACKBUF_DICT = 13
} packbuf_kind;

/* What a cell of numbers was to the program that wrote it (section 9 of the spec). */
typedef enum packbuf_form {
  PACKBUF_FORM_NATURAL = 0, /* a plain number */
  PACKBUF_FORM_LIST = 1,
  PACKBUF_FORM_ARRAY = 2,  /* such as numpy.ndarray */
  PACKBUF_FORM_TENSOR = 3, /* such as torch.Tensor */
  PACKBUF_FORM_SCALAR = 4, /* a number with a dtype of its own, such as numpy.float32 */
  PACKBUF_FORM_BYTES = 5,  /* item of a media list: plain bytes */
  PACKBUF_FORM_MEDIA = 6   /* item of a media list: media */
} packbuf_form;

/* Memory that the processor cannot read: how to copy from it. type and id are DLPack's. `copy` copies size bytes from
 * the device address src to host memory dst and returns PACKBUF_OK when they are there. */
typedef struct packbuf_device {
  int32_t type, id;
  packbuf_status (*copy)(void *context, void *dst, const void *src, size_t size);
  void *context;
} packbuf_device;

/* A strided array, as DLPack describes one. Points to the caller's memory, which must stay unchanged until the batch is
 * written. */
typedef struct packbuf_tensor {
  const void *data; /* of element [0, ..., 0]; any alignment */
  packbuf_dtype dtype;
  uint8_t rank;                 /* 0 to 8 */
  uint8_t form;                 /* packbuf_form: TENSOR, ARRAY or SCALAR (rank 0); NATURAL means TENSOR */
  const uint64_t *shape;        /* rank numbers; not looked at when rank is 0 */
  const int64_t *strides;       /* bytes from one element to the next in each dimension (negative and 0 allowed); NULL:
                                   contiguous, last dimension fastest */
  const packbuf_device *device; /* NULL: host memory */
} packbuf_tensor;

typedef struct packbuf_value packbuf_value;

/* Bytes of a media cell with its attributes. Raw pixels have height, width, channels and mode. */
typedef struct packbuf_media {
  const void *data;
  size_t size;
  const char *mime; /* NULL: none. UTF-8; mime_size bytes */
  size_t mime_size;
  const char *mode; /* NULL: none. Such as "RGB" */
  size_t mode_size;
  int64_t height, width, channels; /* -1: none */
  double rate;                     /* frames or samples a second */
  uint8_t has_rate;
} packbuf_media;

typedef struct packbuf_opaque {
  const void *data;
  size_t size;
  const char *serializer; /* UTF-8 name, such as "pickle5" */
  size_t serializer_size;
} packbuf_opaque;

/* One dynamic value. kind says which member of `as` holds; all pointers are to memory of the caller or of the arena it
 * was read into. 24 bytes on 64-bit machines. */
struct packbuf_value {
  uint8_t kind; /* packbuf_kind */
  union packbuf_value_as {
    int boolean;
    int64_t i;
    uint64_t u;
    double f;
    struct packbuf_value_text { /* STRING, BYTES, BIGINT: `size` bytes, no terminator needed */
      const char *data;
      size_t size;
    } text;
    struct packbuf_value_list {
      const packbuf_value *items;
      size_t count;
    } list;
    struct packbuf_value_dict { /* keys differ from each other */
      const struct packbuf_entry *entries;
      size_t count;
    } dict;
    const packbuf_media *media;
    const packbuf_opaque *opaque;
    const packbuf_tensor *tensor;
  } as;
};

/* A dict entry. Keys are strings, or (kept by msgpack_ragged) null, bool, integer, float or bytes. */
typedef struct packbuf_entry {
  packbuf_value key, value;
} packbuf_entry;

/* Constructors. Nothing is copied; `text` of packbuf_string ends at its NUL. */
PACKBUF_API packbuf_value packbuf_null(void);
PACKBUF_API packbuf_value packbuf_missing(void);
PACKBUF_API packbuf_value packbuf_bool(int boolean);
PACKBUF_API packbuf_value packbuf_int(int64_t i);
PACKBUF_API packbuf_value packbuf_uint(uint64_t u);
PACKBUF_API packbuf_value packbuf_bigint(const char *text);
PACKBUF_API packbuf_value packbuf_float(double f);
PACKBUF_API packbuf_value packbuf_string(const char *text);
PACKBUF_API packbuf_value packbuf_string_n(const char *text, size_t size);
PACKBUF_API packbuf_value packbuf_bytes(const void *data, size_t size);
PACKBUF_API packbuf_value packbuf_list(const packbuf_value *items, size_t count);
PACKBUF_API packbuf_value packbuf_dict(const packbuf_entry *entries, size_t count);
PACKBUF_API packbuf_value packbuf_tensor_value(const packbuf_tensor *tensor);
PACKBUF_API packbuf_value packbuf_media_value(const packbuf_media *media);
PACKBUF_API packbuf_value packbuf_opaque_value(const packbuf_opaque *opaque);
/* A media description with all attributes absent. */
PACKBUF_API packbuf_media packbuf_media_of(const void *data, size_t size, const char *mime);

/* 1 when a and b are equal under section 16 of the spec, else 0. Depth is the caller's (recursion as deep as the
 * values). Host memory only. */
PACKBUF_API int packbuf_equal(const packbuf_value *a, const packbuf_value *b);
/* The entry's value for a string key of a dict, or NULL. */
PACKBUF_API const packbuf_value *packbuf_dict_get(const packbuf_value *dict, const char *key);

/* JSON text (section 11 of the spec) to a value, in the arena; strings without escapes still point into `text`, which
 * must outlive the value. max_depth 0: the default of 512. Errors: BAD_JSON, BAD_UTF8, DEPTH with error->offset in
 * text; OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_json_parse(const char *text, size_t size, unsigned max_depth, packbuf_arena *arena,
                                              packbuf_value *value, packbuf_error *error);
/* A value as JSON text into `text`, at most `capacity` bytes; *size is the length the whole text has (text may be NULL
 * to measure). Errors: UNENCODABLE for what JSON cannot hold (tensors and arrays, bytes, media, opaque: a row that
 * holds one cannot be written; form LIST reads back as a list), BAD_UTF8, CAPACITY. */
PACKBUF_API packbuf_status packbuf_json_write(const packbuf_value *value, char *text, size_t capacity, size_t *size,
                                              packbuf_error *error);
/* The same for one MessagePack object (section 12 of the spec). Read values point into `data` where they can. */
PACKBUF_API packbuf_status packbuf_msgpack_parse(const void *data, size_t size, unsigned max_depth,
                                                 packbuf_arena *arena, packbuf_value *value, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_msgpack_write(const packbuf_value *value, void *data, size_t capacity, size_t *size,
                                                 packbuf_error *error);
