/* exchange/owned.c: what one exported struct owns: an arena for its buffers and the structs of its children, and its
 * share of the hold. Every struct has its own, as a consumer may move a child out of its parent and release either
 * first.
 * May use: packbuf.h, arena. Must not know: what is kept in it. */

typedef struct packbuf_i_export_owned {
  packbuf_arena arena;
  packbuf_hold hold;
} packbuf_i_export_owned;

static packbuf_i_export_owned *packbuf_i_own(const packbuf_export *what) {
  packbuf_arena arena;
  packbuf_i_export_owned *owned;
  packbuf_arena_init(&arena, what->allocator);
  owned = (packbuf_i_export_owned *)packbuf_arena_alloc(&arena, sizeof *owned, 8);
  if (!owned) return NULL;
  owned->arena = arena;
  owned->hold = what->hold;
  if (owned->hold.take) owned->hold.take(owned->hold.context);
  return owned;
}

static void packbuf_i_disown(packbuf_i_export_owned *owned) {
  packbuf_arena arena = owned->arena; /* which the struct itself lies in */
  const packbuf_hold hold = owned->hold;
  packbuf_arena_free(&arena);
  if (hold.release) hold.release(hold.context);
}

/* A buffer of `count` elements of `size` bytes, aligned as Arrow advises; NULL: no memory, or more than the view's
 * limit of decoded bytes. Never NULL for 0 bytes. */
static void *packbuf_i_own_buffer(const packbuf_export *what, packbuf_i_export_owned *owned, uint64_t count,
                                  size_t size) {
  uint64_t bytes;
  if (!packbuf_i_mul(count, size, &bytes) || bytes > what->selection->view->limits.decoded_bytes || bytes > SIZE_MAX)
    return NULL;
  return packbuf_arena_alloc(&owned->arena, (size_t)bytes, 64);
}
