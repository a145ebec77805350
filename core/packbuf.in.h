/* packbuf.h: one header that turns a batch of rows into one contiguous, aligned, verifiable buffer, and reads it back.
 *
 * Define PACKBUF_IMPLEMENTATION in exactly one file before including it; include it plainly elsewhere. Needs nothing
 * but a C99 (or C++17) compiler.
 *
 * The tour. Write: packbuf_arena_init, packbuf_batch_init, packbuf_add_... for each field, packbuf_measure (the exact
 * size; of a packed batch the most it can be), packbuf_write (one copy per byte); packbuf_pack does the last two into
 * the arena's memory. With many threads: packbuf_write_split, packbuf_write_part and packbuf_write_finish, or
 * packbuf_threads.h. Not into one block of memory: packbuf_write_through (a callback), packbuf_scatter_list (a list of
 * segments). Smaller, but numbers are then copied out (packbuf_select_copy) and not read in place: packing in
 * packbuf_options.
 * Read: packbuf_open (checks the head, allocates nothing), packbuf_verify (everything: do it when the bytes come from a
 * stranger), packbuf_find, packbuf_get_... (in place), packbuf_read_... (values, in an arena).
 * Select: packbuf_select (fields by pattern, rows), packbuf_select_... (in place, copied out, values), and
 * packbuf_select_ranges with packbuf_open_partial (only the bytes of a selection are fetched).
 * Many: packbuf_manifest_... lists fragments, packbuf_join_... reads them as one batch, packbuf_concat makes one packed
 * buffer of them, packbuf_expect_schema refuses one whose columns drifted.
 * Stack: calls recurse as deep as rows are nested. 128 KiB (what musl gives a thread) are enough for rows of tensors,
 * numbers, text and one dict; 256 KiB for rows nested 64 deep; 1 MiB for all that is within the default limits, and so
 * for what strangers send. (x86-64, gcc and clang, optimised. A level takes up to 3 KiB as nodes, 1 KiB in a JSON or
 * MessagePack cell: whoever raises limits.depth or limits.cell_depth adds that.)
 * Every call returns a packbuf_status, 0 for success, and tells more in a packbuf_error when it is given one.
 * The format is spec/packbuf.md. Below: options, errors, arenas, checksums, values, inference, batches, views,
 * selections, schemas, fragments; then, under PACKBUF_IMPLEMENTATION, the implementation. */
#ifndef PACKBUF_H
#define PACKBUF_H

#include "core/options.h"
#include "core/status.h"
#include "core/arena.h"
#include "core/checksum.h"
#include "core/value.h"
#include "core/infer.h"
#include "core/batch.h"
#include "core/view.h"
#include "core/select.h"
#include "core/schema.h"
#include "core/fragments.h"

#ifdef __cplusplus
}
#endif
#endif /* PACKBUF_H */

#if defined(PACKBUF_IMPLEMENTATION) && !defined(PACKBUF_I_IMPLEMENTED)
#define PACKBUF_I_IMPLEMENTED
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__cplusplus)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* what g++ 12's own intrinsics leave undefined on purpose */
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

/* what all rooms use */
#include "core/base.c"
#include "core/cpu.c"
#include "core/status.c"
#include "core/arena.c"
#include "core/sort.c"
#include "core/crc32c.c"
#include "core/sha256.c"
#include "core/utf8.c"
#include "core/decimal.c"
#include "core/value.c"
#include "core/keys.c"
#include "codecs/json_ragged.c"
#include "codecs/msgpack_ragged.c"

/* packing in blocks: units in lanes, one block, and how it is chosen */
#include "core/lanes.c"
#include "core/lanes_vector.c"
#include "core/lanes_intrinsics.c"
#include "core/lanes_x86.c"
#include "core/lanes_simde.c"
#include "core/lanes_table.c"
#include "core/blocks.c"
#include "core/packer.c"

/* pack, first part: rows -> expand -> infer -> columns, whose elements are pulled */
#include "core/column.c"
#include "core/promote.c"
#include "core/expand.c"
#include "core/infer.c"
#include "core/compat.c"
#include "core/batch.c"
#include "core/pull.c"

/* read, first part: one buffer -> head check -> view -> cells */
#include "core/fetched.c"
#include "core/packed.c"
#include "core/access.c"
#include "core/convert.c"
#include "core/tables.c"
#include "core/open.c"
#include "core/find.c"
#include "core/number.c"
#include "core/cells.c"
#include "core/pieces.c"
#include "core/leaf.c"

/* the codecs: how a leaf's cells become buffers, and buffers cells */
#include "codecs/numbers.c"
#include "codecs/offsets.c"
#include "codecs/ndarray.c"
#include "codecs/ragged_tensor.c"
#include "codecs/typed_ragged.c"
#include "codecs/bytes_ragged.c"
#include "codecs/text.c"
#include "codecs/media_bytes.c"
#include "codecs/media_list_ragged.c"
#include "codecs/readers.c"

/* pack, second part: codec -> layout -> one buffer */
#include "core/layout.c"
#include "core/rows.c"
#include "core/common.c"
#include "core/repeats.c"
#include "core/share.c"
#include "core/gather.c"
#include "core/seek.c"
#include "core/units.c"
#include "core/packing.c"
#include "core/plan.c"
#include "core/output.c"
#include "core/write.c"
#include "core/parts.c"
#include "core/stream.c"
#include "core/scatter.c"

/* read, second part: cells -> values; verification */
#include "core/read.c"
#include "core/verify.c"

/* select: rows and fields of a batch, and the bytes they lie in */
#include "core/choose.c"
#include "core/picked.c"
#include "core/select.c"
#include "core/ranges.c"

/* many packed buffers as one: what they hold, and whether it fits */
#include "core/schema.c"
#include "core/manifest.c"
#include "core/join.c"
#include "core/concat.c"

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif /* PACKBUF_IMPLEMENTATION */
