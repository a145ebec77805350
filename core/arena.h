/* core/arena.h: where memory comes from. One bump arena serves a batch that is built, or values that are read back.
 * May use: core/status.h. Must not know: what is kept in it. */

/* The caller's allocator. resize(context, NULL, 0, n) allocates, (memory, old, 0) frees, (memory, old, n) resizes;
 * returns NULL when there is no memory. Results are aligned as malloc aligns. Called only from the thread that calls
 * packbuf. */
typedef struct packbuf_allocator {
  void *(*resize)(void *context, void *memory, size_t old_size, size_t new_size);
  void *context;
} packbuf_allocator;

/* A bump arena. The fields are private. Not thread-safe: one arena, one thread at a time. */
typedef struct packbuf_arena {
  packbuf_allocator allocator;
  struct packbuf_i_arena_block *blocks; /* newest first */
  unsigned char *next, *end;            /* free bytes of the newest block */
  uint64_t used, limit;                 /* bytes handed out; most that may be */
} packbuf_arena;

/* Starts an arena on an allocator (NULL: the C library's realloc and free). Allocates nothing yet. */
PACKBUF_API void packbuf_arena_init(packbuf_arena *arena, const packbuf_allocator *allocator);
/* Starts an arena in `size` bytes of the caller's memory; it never allocates. The memory must outlive what is made in
 * it. */
PACKBUF_API void packbuf_arena_init_fixed(packbuf_arena *arena, void *memory, size_t size);
/* `size` bytes aligned to `alignment` (a power of two, at most 4096), uninitialised; NULL when there is no memory or
 * the limit is reached. size 0 gives a valid address. */
PACKBUF_API void *packbuf_arena_alloc(packbuf_arena *arena, size_t size, size_t alignment);
/* Gives everything back; the arena is as after init (a fixed one can be used again). */
PACKBUF_API void packbuf_arena_free(packbuf_arena *arena);
