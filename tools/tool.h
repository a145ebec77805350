/* tools/tool.h: what the files of the `packbuf` command share: options, messages, inputs, outputs, cells as tagged
 * JSON, array files. Everything that can fail ends the program through fail(): one line on stderr, temporary files
 * removed, exit 1.
 * May use: packbuf.h (the public part alone). Must not know: what a subcommand does. */
#ifndef PACKBUF_TOOL_H
#define PACKBUF_TOOL_H

#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif
#ifndef PACKBUF_TOOL_ZLIB
#define PACKBUF_TOOL_ZLIB 0 /* 1: deflated .npz members, needs -lz */
#endif

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../packbuf.h"

#if defined(__GNUC__) || defined(__clang__)
#define TOOL_NORETURN __attribute__((noreturn))
#define TOOL_PRINTF(string, first) __attribute__((format(printf, string, first)))
#else
#define TOOL_NORETURN
#define TOOL_PRINTF(string, first)
#endif

enum { TOOL_OK = 0, TOOL_NO = 1, TOOL_USAGE = 2 }; /* exit codes */

/* ---- options.c: the command line ---- */

typedef struct strings {
  const char **items;
  size_t count;
} strings;

/* One option: sets exactly one of flag (to 1), text (the last one counts) and list (all are kept). */
typedef struct option {
  char letter; /* 0: none */
  const char *name;
  int *flag;
  const char **text;
  strings *list;
} option;

typedef struct verb {
  const char *name, *summary, *help;
  int (*run)(const struct verb *command, int argc, char **argv);
} verb;

/* Fills in the options (an array that ends with name NULL); what is no option becomes `rest`. --help prints the help
 * and exits. */
void parse_options(const verb *command, int argc, char **argv, const option *options, strings *rest);
void strings_add(strings *list, const char *item);
void strings_free(strings *list); /* not the items */
/* A non-negative number; a usage error when it is none. */
uint64_t parse_number(const verb *command, const char *name, const char *text);
/* "4096", "64m", "8G": at least 1; k, m, g, t are powers of 1024. */
uint64_t parse_size(const verb *command, const char *name, const char *text);
/* A time with its unit, such as 30s, 10m, 12h or 2d, in milliseconds. */
uint64_t parse_age(const verb *command, const char *name, const char *text);

/* A range of rows, "3", "10:20", "10:", ":20", negative from the end, as Python slices. */
typedef struct row_range {
  uint64_t first, count;
} row_range;
row_range parse_rows(const verb *command, const char *text, const char *file, uint64_t rows);

/* ---- message.c: stderr ---- */

void say(const char *file, const char *format, ...) TOOL_PRINTF(2, 3);
void fail(const char *file, const char *format, ...) TOOL_NORETURN TOOL_PRINTF(2, 3);
void fail_errno(const char *file, const char *what) TOOL_NORETURN; /* what may be NULL */
void fail_usage(const verb *command, const char *format, ...) TOOL_NORETURN TOOL_PRINTF(2, 3);
void fail_status(const char *file, const packbuf_error *error) TOOL_NORETURN;
void fail_memory(void) TOOL_NORETURN;
int colour_on(int fd);
/* Copies text so that it can be shown on a terminal: control characters become \xNN. Returns the length written,
 * without the NUL. */
size_t show_text(const char *text, size_t size, char *to, size_t capacity);
/* A bar on stderr, when that is a terminal and more than half a second has passed. `done` of `total`; total 0: nothing
 * but the label. */
void progress(const char *label, uint64_t done, uint64_t total);
void progress_end(void);

/* ---- memory.c ---- */

void *must_alloc(size_t size);
void *must_resize(void *memory, size_t size);
void *must_arena(packbuf_arena *arena, size_t size, size_t alignment);

/* A text that grows. */
typedef struct text {
  char *data;
  size_t size, capacity;
} text;
void text_add(text *to, const char *data, size_t size);
void text_puts(text *to, const char *string);
void text_printf(text *to, const char *format, ...) TOOL_PRINTF(2, 3);
char *text_room(text *to, size_t size); /* space for `size` more bytes, not yet counted */
void text_free(text *to);

/* ---- input.c ---- */

typedef struct source {
  const char *name;
  const uint8_t *data;
  uint64_t size;
  int mapped;
} source;

/* Maps a regular file, reads anything else ("-": stdin) into memory. */
void source_open(source *source, const char *name);
void source_close(source *source);
/* Opens as source_open does, and the view upon it (whole file, decoded_bytes NULL: the default limit). */
void open_packed(const verb *command, source *source, packbuf_view *view, const char *name, const char *decoded_bytes);
/* SIGBUS in a mapping ends the program with a line that names the file. */
void watch_mapping(const char *name, const void *data, size_t size, int is_output);
void unwatch_mapping(const void *data);

/* ---- output.c ---- */

typedef struct output {
  const char *name; /* as given; "-": stdout */
  int fd, temporary;
  text buffer;
  void *map;
  size_t map_size;
} output;

void catch_signals(void);
/* Opens a temporary file beside `name` that outputs_commit renames; a device, pipe or "-" is written directly. */
void output_open(output *out, const char *name);
void output_write(output *out, const void *data, size_t size);
void output_flush(output *out);
void output_text(output *out); /* flushes when the buffer is large: call after adding to out->buffer */
/* `size` bytes of the file as memory; NULL when it is no regular file. Their space is taken at once when all of them
 * will be written (exact), else as they are. */
void *output_map(output *out, uint64_t size, int exact);
/* A mapped file is no longer than `size` bytes. */
void output_trim(output *out, uint64_t size);
void output_close(output *out);
void make_folder(const char *name); /* removed again, when empty, if the program fails */
void outputs_commit(void);          /* renames all */
void outputs_remove(void);          /* async-signal-safe: removes all temporaries */

/* ---- packing.c: packings, packed files, blocks ---- */

int packing_parse(const char *word, packbuf_packing *to); /* 0: no such packing */
/* What --packing and --link say (NULL: not given): the packing itself; without either balanced. */
void packing_options(const verb *command, const char *word, const char *link, packbuf_options *to);
const char *profile_word(unsigned profile); /* "plain", "balanced", ...; NULL */

/* A packed buffer that has been written to a file, or to memory for a pipe. */
typedef struct packed_file {
  output out;
  void *memory;
  uint64_t size;
  int mapped;
} packed_file;
/* Writes a batch; exact: nothing of it is packed. Only what comes from the batch is returned, all else ends the
 * program. */
packbuf_status packed_write(packed_file *to, const char *name, packbuf_batch *batch, int exact, packbuf_error *error);
void packed_close(packed_file *from); /* and gives it its name */

/* The blocks of a buffer by mode: entry 2 x mode, + 1 when filled; the last for those that cannot be read. */
enum { BLOCKS_BROKEN = 2 * (PACKBUF_BLOCK_DICTIONARY + 1), BLOCK_KINDS = BLOCKS_BROKEN + 1 };
typedef struct block_modes {
  uint64_t blocks, counts[BLOCK_KINDS];
} block_modes;
void count_modes(const packbuf_buffer *buffer, block_modes *to);
void modes_word(const block_modes *from, text *to); /* "split 93%, frame": by share, most first */
void modes_json(const block_modes *from, text *to); /* {"split":93,"frame":7} */

/* Why a buffer is stored plain although its packed buffer has a packed profile. */
typedef enum plain_reason {
  PLAIN_ANYWAY, /* it is not stored plain, or the profile is not a packed one */
  PLAIN_IN_PLACE,
  PLAIN_SHORT,
  PLAIN_DTYPE,
  PLAIN_ASKED_OR_SAMPLED /* keep_plain or packing none, or what a sample says: the file does not keep which */
} plain_reason;
plain_reason why_plain(const packbuf_view *view, const packbuf_node *node, const packbuf_buffer *buffer);
const char *plain_word(plain_reason reason); /* NULL: PLAIN_ANYWAY */

/* ---- tagged.c: cells as tagged JSON (section 22 of the spec) ---- */

void print_value(text *to, const packbuf_value *value);
void print_string(text *to, const char *data, size_t size); /* with its quotes; bytes that are no UTF-8 as U+FFFD */
/* How tags in parsed JSON are read. */
typedef struct tag_context {
  packbuf_arena *arena;
  const char *folder; /* of "$file" paths: real path; NULL: the working directory */
  int allow_paths, no_tags;
  const char *problem; /* set on failure: static text */
  char problem_path[160];
} tag_context;
/* The value with all tagged objects replaced. Returns 0 with problem set. */
int read_tags(tag_context *context, const packbuf_value *value, packbuf_value *out);

/* ---- cells.c: reading columns ---- */

/* One selected column. */
typedef struct selected {
  packbuf_node node;
  char *path, *label; /* escaped path; the name it is shown by: of a top-level node its own, else the path */
  size_t label_size;
  packbuf_value *values; /* of the last read_cells; NULL: not readable as a whole */
  uint64_t first;        /* row of values[0] */
} selected;
typedef struct columns {
  selected *items;
  size_t count;
} columns;
/* All fields (scope 0) or batch values (scope 1); or those of the comma-separated lists (`\,` is a comma), whose paths
 * may be patterns. */
void select_columns(columns *to, const packbuf_view *view, const char *file, unsigned scope, const strings *lists);
void columns_free(columns *list);
/* Rows to read at a time: few enough that the values of all columns are a few megabytes. */
uint64_t batch_rows(size_t column_count);
/* Reads rows of a column into the arena. Unreadable leaves are no error, all else ends the program. */
void read_cells(selected *from, const packbuf_view *view, const char *file, uint64_t first, uint64_t count,
                packbuf_arena *arena);
/* Prints a cell that read_cells has read. Returns 0 when it is missing (and prints $missing). */
int print_cell(text *to, const selected *from, const packbuf_view *view, const char *file, uint64_t row,
               packbuf_arena *arena);

/* ---- names.c ---- */

/* `name` escaped as a path's component, in malloc'd memory. */
char *escape_path(const char *name, size_t size);
/* A safe file name (percent-escaped), in malloc'd memory. */
char *safe_file_name(const char *name, size_t size);
int utf8_valid(const char *data, size_t size);
/* The node of a path that the command line names; ends the program when there is none. */
void find_node(const packbuf_view *view, const char *file, unsigned scope, const char *path, packbuf_node *node);
char *node_path(const packbuf_view *view, uint32_t index);   /* malloc'd */
const char *node_word(const packbuf_node *node);             /* "dict", "list", a codec's name or "codec 77" */
void dtype_word(packbuf_dtype dtype, char *to, size_t size); /* "float32", "" or "dtype 9/8/1" */
int unreadable(packbuf_status status);                       /* an UNSUPPORTED_... status */

/* A set of names, each with a file. */
typedef struct name_set {
  struct name_slot *slots;
  size_t count, capacity;
} name_set;
/* Adds a name (not copied); returns NULL, or the file it is known by already. */
const char *name_set_add(name_set *set, const char *name, size_t size, const char *file);
const char *name_set_find(const name_set *set, const char *name, size_t size);
void name_set_free(name_set *set);

/* ---- npy.c, npz.c, safetensors.c: array files ---- */

/* One array of an input. */
typedef struct array {
  const char *name, *file; /* field name; for messages */
  packbuf_tensor tensor;
  uint64_t shape[PACKBUF_MAX_RANK];
  int64_t strides[PACKBUF_MAX_RANK];
  const char *unit; /* of datetime64, else NULL */
  int offsets;      /* used by --ragged as offsets: no field of its own */
} array;

typedef struct arrays {
  array **items;
  size_t count, capacity;
} arrays;

array *arrays_add(arrays *list);
int big_endian(void);                                                 /* this machine */
void reverse_elements(void *data, size_t bytes, packbuf_dtype dtype); /* the bytes of each number */
const void *swapped_copy(const uint8_t *data, uint64_t bytes, packbuf_dtype dtype, packbuf_arena *arena);
/* The .npy file in `data`; element pointers go into it, big-endian elements are copied. */
void npy_read(const char *file, const uint8_t *data, uint64_t size, array *to, packbuf_arena *arena);
/* The header that numpy.save writes for a C-contiguous array. unit: NULL, or that of a datetime64. */
void npy_header(text *to, packbuf_dtype dtype, const char *unit, unsigned rank, const uint64_t *shape);
/* What an .npy holds for a dtype: same, or unsigned bits where numpy has no name for it. */
packbuf_dtype npy_dtype(packbuf_dtype dtype);
int npy_unit(const char *unit, size_t size); /* 1 when it is a unit that packbuf's timestamps have */
void npz_read(const source *source, arrays *list, packbuf_arena *arena);

typedef struct string_pair {
  const char *key, *text, *file;
} string_pair;
typedef struct pairs {
  string_pair *items;
  size_t count;
} pairs;
void pairs_add(pairs *list, const char *key, const char *value, const char *file);
void safetensors_read(const source *source, arrays *list, pairs *metadata, packbuf_arena *arena);
/* n x size of an element of all dimensions, or 0 with *ok 0 when it does not fit in 2^62. */
int array_bytes(packbuf_dtype dtype, unsigned rank, const uint64_t *shape, uint64_t *bytes);

/* ---- jsonl.c ---- */

typedef struct jsonl {
  const char *file;
  packbuf_value *rows; /* dicts */
  uint64_t *lines;     /* of each row, from 1 */
  uint64_t count;
} jsonl;
void jsonl_read(const source *source, tag_context *context, jsonl *to);
/* One JSON text (a whole file) with its tags. */
void json_read(const source *source, tag_context *context, packbuf_value *value);

/* ---- subcommands ---- */

int run_pack(const verb *command, int argc, char **argv);
int run_unpack(const verb *command, int argc, char **argv);
int run_infer(const verb *command, int argc, char **argv);
int run_inspect(const verb *command, int argc, char **argv);
int run_verify(const verb *command, int argc, char **argv);
int run_cat(const verb *command, int argc, char **argv);
int run_diff(const verb *command, int argc, char **argv);
int run_ranges(const verb *command, int argc, char **argv);
int run_schema(const verb *command, int argc, char **argv);
int run_concat(const verb *command, int argc, char **argv);
int run_put(const verb *command, int argc, char **argv);
int run_get(const verb *command, int argc, char **argv);
int run_ls(const verb *command, int argc, char **argv);
int run_rm(const verb *command, int argc, char **argv);
int run_stat(const verb *command, int argc, char **argv);
int run_store(const verb *command, int argc, char **argv);
int run_serve(const verb *command, int argc, char **argv);
int run_bench_store(const verb *command, int argc, char **argv);
int run_doctor(const verb *command, int argc, char **argv);

#endif
