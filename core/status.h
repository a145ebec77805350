/* core/status.h: every way a call can end. Two X-macro lists: the status codes that calls return, and the numbered
 * rules of the format with the code each one raises. The enum, the strings and the tables of spec/packbuf.md (sections
 * 13 and 14) all come from here.
 * May use: nothing. Must not know: any other room. */

/* X(name, number, text). Numbers are fixed for ever. */
/* clang-format off */
#define PACKBUF_STATUS_LIST(X)                                                                                        \
  X(OK, 0, "success")                                                                                                 \
  /* the caller */                                                                                                    \
  X(INVALID_ARGUMENT, 1, "an argument is out of its range")                                                           \
  X(OUT_OF_MEMORY, 2, "the allocator returned no memory, or the fixed arena is full")                                 \
  X(NOT_FOUND, 3, "no such field, node, buffer or key")                                                               \
  X(OUT_OF_RANGE, 4, "a row, element or index lies beyond the end")                                                   \
  X(WRONG_TYPE, 5, "the column is not of the kind that was asked for")                                                \
  X(UNALIGNED, 6, "the bytes are not aligned for typed access; copy them out")                                        \
  X(NOT_STORED, 7, "the elements do not lie there in one run (computed, or shared); copy them out")                   \
  X(ROW_COUNT, 8, "a field has another number of rows than the batch")                                                \
  X(READ_ONLY, 9, "the destination cannot be written")                                                                \
  X(SCHEMA_MISMATCH, 10, "columns are not those that are expected, or differ between fragments")                      \
  X(FRAGMENT_MISMATCH, 11, "a fragment is not the one that is listed")                                                \
  X(ROW_ORDER, 12, "fragments that append fields are not of the same rows in the same order")                         \
  X(NOT_FETCHED, 13, "the bytes were not fetched")                                                                    \
  /* capacity */                                                                                                      \
  X(CAPACITY, 20, "the destination is too small")                                                                     \
  /* malformed bytes */                                                                                               \
  X(BAD_MAGIC, 40, "not a packed buffer")                                                                             \
  X(TRUNCATED, 41, "the bytes end too early")                                                                         \
  X(TRAILING_BYTES, 42, "bytes follow the packed buffer")                                                             \
  X(BAD_HEADER, 43, "a field of the header is wrong")                                                                 \
  X(HEAD_CHECKSUM, 44, "the head's checksum does not match")                                                          \
  X(INDEX_CHECKSUM, 45, "the index's checksum does not match")                                                        \
  X(DATA_CHECKSUM, 46, "a data checksum does not match")                                                              \
  X(NOT_ZERO, 47, "bytes that must be zero are not")                                                                  \
  X(BAD_LAYOUT, 48, "a hole, an overlap, or bytes outside their section")                                             \
  X(BAD_NODE, 49, "a node record is wrong")                                                                           \
  X(BAD_BUFFER, 50, "a buffer record is wrong")                                                                       \
  X(BAD_METADATA, 51, "a metadata record is wrong")                                                                   \
  X(BAD_NAME, 52, "a name or the name index is wrong")                                                                \
  X(DUPLICATE_NAME, 53, "two siblings have the same name")                                                            \
  X(BAD_UTF8, 54, "text is not valid UTF-8")                                                                          \
  X(BAD_MASK, 55, "a validity or missing mask is wrong")                                                              \
  X(BAD_OFFSETS, 56, "offsets or lengths are not in order")                                                           \
  X(BAD_SHAPE, 57, "shapes do not match their extents")                                                               \
  X(BAD_TYPES, 58, "a cell's type is not allowed or not exact")                                                       \
  X(BAD_BOOL, 59, "a bool byte is neither 0 nor 1")                                                                   \
  X(BAD_JSON, 60, "a cell is not valid JSON")                                                                         \
  X(BAD_MSGPACK, 61, "a cell is not valid MessagePack")                                                               \
  X(BAD_REFERENCE, 62, "a row refers to a row that it may not refer to")                                              \
  X(BAD_MANIFEST, 63, "a manifest is not a list of fragments")                                                        \
  X(BAD_BLOCK, 64, "a packed block is not what its header says")                                                      \
  /* limits */                                                                                                        \
  X(LIMIT, 80, "a limit of the caller would be exceeded")                                                             \
  X(DEPTH, 81, "nested too deeply")                                                                                   \
  /* unsupported */                                                                                                   \
  X(UNSUPPORTED_VERSION, 100, "a newer major version of the format")                                                  \
  X(UNSUPPORTED_FEATURE, 101, "a required feature that this reader does not know")                                    \
  X(UNSUPPORTED_KIND, 102, "another kind of packed buffer")                                                           \
  X(UNSUPPORTED_CODEC, 103, "a codec that this reader does not know")                                                 \
  X(UNSUPPORTED_PACKING, 104, "a packing that this reader does not know")                                             \
  X(UNSUPPORTED_DTYPE, 105, "a dtype that this reader does not know")                                                 \
  X(UNSUPPORTED_ROLE, 106, "a buffer role that this reader does not know")                                            \
  X(UNSUPPORTED_DEVICE, 107, "memory of a device without a copy hook")                                                \
  X(UNSUPPORTED_OPERATION, 108, "this store cannot do that")                                                          \
  /* encoding */                                                                                                      \
  X(UNENCODABLE, 120, "the value cannot be held by this codec")                                                       \
  X(LOSSY, 121, "the value would change")                                                                             \
  X(NOT_NULLABLE, 122, "a null or missing cell in a field that must not have one")                                    \
  /* the transport */                                                                                                 \
  X(TIMEOUT, 140, "the deadline passed")                                                                              \
  X(CANCELLED, 141, "cancelled by the caller")                                                                        \
  X(STALE, 142, "the key now names another generation")                                                               \
  X(FULL, 143, "there is no room")                                                                                    \
  X(QUOTA, 144, "the quota is used up")                                                                               \
  X(LEASED, 145, "a lease or a slice is still out")                                                                   \
  X(UNAVAILABLE, 146, "the transport is not to be had here")                                                          \
  X(DISCONNECTED, 147, "the other side, or the store, is gone")                                                       \
  X(DENIED, 148, "the secret or the rights are missing")                                                              \
  X(UNREGISTERED, 149, "an address that is not registered")                                                           \
  X(SHORT_READ, 150, "fewer bytes came than the object has")                                                          \
  X(PROTOCOL, 151, "the other side, or the store's shared records, break the rules")                                  \
  X(SYSTEM, 152, "the system or an engine below failed")

/* X(id, number, status, text, at): the rules of spec/packbuf.md in the order they are checked. `at` says which byte
 * offset is reported. */
#define PACKBUF_RULE_LIST(X)                                                                                          \
  X(H1, 101, TRUNCATED, "at least 128 bytes are there: file header and directory", "number of bytes there are")      \
  X(H2, 102, BAD_MAGIC, "the magic is right", "0")                                                                    \
  X(H3, 103, UNSUPPORTED_VERSION, "version_major is 1", "8")                                                          \
  X(H4, 104, UNSUPPORTED_FEATURE, "no unknown bit of required_features is set", "16")                                 \
  X(H5, 105, UNSUPPORTED_KIND, "kind is 1 or 2", "12")                                                                \
  X(H6, 106, BAD_HEADER, "alignment_exponent is 6 to 12", "13")                                                       \
  X(H7, 107, BAD_HEADER, "head_length is at least 128, the three lengths are multiples of the alignment, and head and index lie within the total", "32, 40 or 24: the first that is wrong") \
  X(H8, 108, TRUNCATED, "all total_length bytes are there", "number of bytes there are")                              \
  X(H9, 109, TRAILING_BYTES, "a file has no bytes after total_length", "total_length")                                \
  X(H10, 110, LIMIT, "head_length, node_count, buffer_count, metadata_count and rows are within the caller's limits, strings_length below 2^32", "32, 64, 68, 72, 48 or 88: the first that is not") \
  X(H11, 111, HEAD_CHECKSUM, "head_checksum matches", "60")                                                           \
  X(H12, 112, BAD_HEADER, "each stride is at least that of version 1.0 and a multiple of 8 (name_stride: of 4)", "80, 82, 84 or 86") \
  X(H13, 113, NOT_ZERO, "the directory's zero bytes are zero", "124")                                                 \
  X(H14, 114, BAD_HEADER, "head_length is what the tables and strings need, rounded up to the alignment", "32")       \
  X(H15, 115, NOT_ZERO, "the bytes after the strings are zero up to head_length", "the first that is not")            \
  X(N1, 201, BAD_NODE, "kind is 1, 2 or 3 and scope 0 or 1, no scope 0 after a scope 1 at the top, a child has its parent's scope", "kind 22, scope 23") \
  X(N2, 202, BAD_NODE, "parent is the node that encloses it (0xFFFFFFFF at the top), descendants stays within the parent's subtree and the table", "parent 0, descendants 4") \
  X(N3, 203, DEPTH, "the path is not longer than the depth limit", "the record")                                      \
  X(N4, 204, BAD_NODE, "a leaf has children only under codec 6 and 7, and those are leaves", "kind 22 of the child")  \
  X(N5, 205, BAD_NODE, "dict and list have codec, dtype, form, rank and logical type 0; a leaf has a codec other than 0; null has dtype 0, codecs 5 to 11 have uint8", "codec 24") \
  X(N6, 206, NOT_ZERO, "the record's zero bytes are zero", "44 or 56")                                                \
  X(N7, 207, BAD_SHAPE, "rank is at most 8, and 0 unless the codec is 2, 3 or 4", "rank 30")                          \
  X(N8, 208, BAD_NODE, "form is one that the codec allows", "form 27")                                                \
  X(N9, 209, BAD_NODE, "rows is what scope and parent demand", "rows 48")                                             \
  X(N10, 210, BAD_LAYOUT, "name, shape and parameter lie where the strings before them end, within the strings", "name_offset 8, shape_offset 32, parameter_offset 36") \
  X(N11, 211, BAD_NAME, "a child of a list has an empty name", "name_length 12")                                      \
  X(N12, 212, BAD_UTF8, "name and parameter are UTF-8", "the first wrong byte in the strings")                        \
  X(N13, 213, BAD_SHAPE, "the dimensions of an ndarray cell, times rows and element size, stay below 2^63", "shape_offset 32") \
  X(N14, 214, BAD_NODE, "first_buffer and buffer_count take the next records of the buffer table; all nodes take them all", "first_buffer 16; buffer_count 20; at the end 68") \
  X(N15, 215, BAD_NODE, "field_count and value_count are the numbers of top-level nodes", "96 or 100")                \
  X(B1, 301, BAD_BUFFER, "node is the node that lists the record; (role, dim) ascend within a node", "node 0, role 4") \
  X(B2, 302, BAD_BUFFER, "storage is 1 to 5, dim is 0 unless the role is shape, then below the rank", "storage 6, dim 5") \
  X(B3, 303, BAD_BUFFER, "dtype is that of the role; that of role data is the leaf's; bits x lanes is not 0", "dtype_code 8") \
  X(B4, 304, BAD_BUFFER, "the byte length of count stays below 2^63", "count 16")                                     \
  X(B5, 305, NOT_ZERO, "fields that the storage does not use are zero", "the field: alias_of 12, offset 24, length 32, value 40, headers_offset 56") \
  X(B6, 306, BAD_BUFFER, "an inline buffer has at most 16 bytes; packing is 0 unless the storage is stored or alias", "count 16, packing 7") \
  X(B7, 307, BAD_BUFFER, "a constant of 1 bit is 0 or 1; a constant bool is 0 or 1", "value 40")                      \
  X(B8, 308, BAD_BUFFER, "a sequence is of int64 or uint64 and does not overflow", "dtype_code 8, value 40")          \
  X(B9, 309, BAD_BUFFER, "an alias names an earlier stored record of the same section and repeats its dtype, packing, count, offset, length, value and headers_offset", "alias_of 12") \
  X(B10, 310, BAD_BUFFER, "a plain stored buffer's length is the byte length of count", "length 32")                  \
  X(B11, 311, BAD_LAYOUT, "a stored buffer lies where the cursor of its section stands, within the section", "offset 24 (headers_offset 56)") \
  X(B12, 312, BAD_LAYOUT, "the cursors end at index_length and total_length", "40 or 24")                             \
  X(B13, 313, BAD_BUFFER, "a leaf of a known codec and a node have the buffers that their kind demands and no others, with the count that rows demands", "the record, or the node's first_buffer 16 when one is absent") \
  X(B14, 314, BAD_BUFFER, "a buffer packed in blocks is not data of the codecs 5 to 11, and has elements, of a dtype that section 20 packs, a length that is a multiple of 64, and value zero", "packing 7, dtype_code 8, count 16, length 32, value 40") \
  X(M1, 401, BAD_METADATA, "node is a node or 0xFFFFFFFF", "node 0")                                                  \
  X(M2, 402, BAD_METADATA, "records ascend strictly by (node, key)", "key_offset 4")                                  \
  X(M3, 403, BAD_LAYOUT, "key and value lie where the strings before them end; the last string ends the strings", "key_offset 4, value_offset 12; at the end 88") \
  X(M4, 404, BAD_UTF8, "key and value are UTF-8", "the first wrong byte in the strings")                              \
  X(M5, 405, NOT_ZERO, "the record's zero bytes are zero", "20")                                                      \
  X(S1, 501, BAD_NAME, "the name index has one entry for each node that has a name, and entries are such nodes", "76, or the entry") \
  X(S2, 502, BAD_NAME, "entries ascend by (parent, scope, name)", "the entry")                                        \
  X(S3, 503, DUPLICATE_NAME, "no two siblings of one scope have the same name", "the later entry")                    \
  X(I1, 601, INDEX_CHECKSUM, "index_checksum matches", "56")                                                          \
  X(I2, 602, NOT_ZERO, "padding in the index is zero", "the first byte that is not")                                  \
  X(I3, 603, BAD_MASK, "bits after the last row are zero", "the mask's last byte")                                    \
  X(I4, 604, BAD_MASK, "missing is set only where validity is 0; there is no missing mask without validity, but under codec null", "the missing mask") \
  X(I5, 605, BAD_MASK, "where a dict or list is absent, each child's cell is null and not missing", "the child's validity mask, else its record") \
  X(I6, 606, BAD_MASK, "a child of a list is missing exactly in the present rows that are shorter", "the child's missing mask, else its record") \
  X(I7, 607, BAD_OFFSETS, "offsets start at 0, do not descend, and end at the count they delimit", "the first wrong element") \
  X(I8, 608, BAD_OFFSETS, "an absent cell has extent 0, an absent list length 0", "the element that ends the extent; the length") \
  X(I9, 609, BAD_OFFSETS, "a length is at most the number of the node's children", "the length")                      \
  X(I10, 610, BAD_SHAPE, "ndims is at most rank; an absent cell has ndims 0 and zero shape; dimensions that a cell does not have are 0", "the element") \
  X(I11, 611, BAD_SHAPE, "the product of a cell's dimensions is its extent (a cell of 0 dimensions: 1)", "the offset that ends the extent") \
  X(I12, 612, BAD_TYPES, "a cell's type is one that its codec, form and dtype allow; an absent cell has type 0", "the type") \
  X(I13, 613, BAD_REFERENCE, "row_index of a present cell is below the number of stored rows; of an absent cell 0", "the element")       \
  X(I14, 614, BAD_REFERENCE, "a prefix refers to a stored row that refers to none and is as long at least; without a prefix prefix_row is 0; an absent cell has none", "prefix_row; prefix_length when the leader is too short or the cell absent") \
  X(I15, 615, BAD_BLOCK, "a block header has a mode, and a base, width, shift and extra that the mode allows", "mode 12, base 0, width 13, shift 14, extra 15") \
  X(I16, 616, BAD_BLOCK, "payloads follow each other from place 0 to length; those of modes 0, 1, 2, 3 and 5 that are not filled are as long as their mode says", "place 8; when a payload ends wrong that of the next header, after the last length 32") \
  X(I17, 617, BAD_BLOCK, "a payload in the index is what its mode says: dense rows, fill, lines, tops, number of bytes, zero bytes", "the first byte of the payload") \
  X(D1, 701, DATA_CHECKSUM, "each data checksum matches", "the first byte of the chunk")                              \
  X(D2, 702, NOT_ZERO, "padding in the data is zero", "the first byte that is not")                                   \
  X(D3, 703, BAD_BOOL, "a bool byte is 0 or 1", "the byte")                                                           \
  X(D4, 704, NOT_ZERO, "an absent cell of an ndarray is zero bytes", "the first byte that is not")                    \
  X(D5, 705, BAD_TYPES, "a cell whose number type is not the dtype's own is exact", "the cell's first element that is not") \
  X(D6, 706, BAD_UTF8, "a cell of utf8_ragged is UTF-8", "the first wrong byte")                                      \
  X(D7, 707, BAD_JSON, "a cell of json_ragged is JSON as section 11 says", "the byte where it stops being so")        \
  X(D8, 708, BAD_MSGPACK, "a cell of msgpack_ragged is MessagePack as section 12 says", "the byte where it stops being so") \
  X(D9, 709, LIMIT, "what is unpacked stays within the caller's limits", "the record's count 16, or the cell") \
  X(D10, 710, BAD_BLOCK, "a payload in the data is what its mode says (I17)", "the first byte of the payload")
/* clang-format on */

/* What a call returned. PACKBUF_OK is 0. */
typedef enum packbuf_status {
#define PACKBUF_I_X(name, number, text) PACKBUF_##name = number,
  PACKBUF_STATUS_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
      PACKBUF_STATUS_MAX_ = 0x7fff /* not a status: keeps the enum open for newer versions */
} packbuf_status;

/* A numbered rule of the format; 0 where no rule is concerned. packbuf_rule_name(PACKBUF_RULE_H2) is "H2". */
typedef enum packbuf_rule {
  PACKBUF_RULE_NONE = 0,
#define PACKBUF_I_X(id, number, status, text, at) PACKBUF_RULE_##id = number,
  PACKBUF_RULE_LIST(PACKBUF_I_X)
#undef PACKBUF_I_X
      PACKBUF_RULE_MAX_ = 0x7fff
} packbuf_rule;

#define PACKBUF_NOWHERE UINT64_MAX /* packbuf_error.offset, .row and the like: does not apply */
#define PACKBUF_ERROR_PATH 120     /* bytes of packbuf_error.path, its final NUL included */
#define PACKBUF_ERROR_TYPE 64      /* of packbuf_error.expected and .found */

/* Where and why a call failed. Optional everywhere: pass NULL to do without. Filled only on failure; owns nothing, may
 * be copied. */
typedef struct packbuf_error {
  packbuf_status code;
  packbuf_rule rule;   /* the rule of the format that is broken, or PACKBUF_RULE_NONE */
  const char *message; /* static text */
  uint64_t offset;     /* byte offset in the packed buffer (or in the text being parsed), or PACKBUF_NOWHERE; SYSTEM,
                          DISCONNECTED: the errno */
  uint64_t row;        /* row of the batch or of the column, or PACKBUF_NOWHERE */
  uint64_t fragment;   /* which of the fragments that were given or listed, or PACKBUF_NOWHERE */
  uint64_t needed;     /* bytes that the call wants where fewer were given: CAPACITY (but of packbuf_select_copy),
                          TRUNCATED (as a header says, which may lie); else PACKBUF_NOWHERE */
  char
      path[PACKBUF_ERROR_PATH]; /* escaped path of the field, cut at the front with "..." when too long; "" when none */
  char expected[PACKBUF_ERROR_TYPE]; /* SCHEMA_MISMATCH: the type that the column should have, in the words of its */
  char found[PACKBUF_ERROR_TYPE];    /* schema line ("ndarray int64 natural []"), and the one it has; "" when none */
} packbuf_error;

/* The name of a status ("BAD_MAGIC"), its one-line text, and the name ("H2") and text of a rule. Static strings; "?"
 * for unknown numbers. Thread-safe. */
PACKBUF_API const char *packbuf_status_name(packbuf_status status);
PACKBUF_API const char *packbuf_status_text(packbuf_status status);
PACKBUF_API const char *packbuf_rule_name(packbuf_rule rule);
PACKBUF_API const char *packbuf_rule_text(packbuf_rule rule);

/* Formats an error as one line without newline: "BAD_MAGIC (H2) at byte 0: not a packed buffer (the rule: the magic is
 * right)". Writes at most `size` bytes, NUL included; returns the length the whole line has. */
PACKBUF_API size_t packbuf_error_format(const packbuf_error *error, char *text, size_t size);
