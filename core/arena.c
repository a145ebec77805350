/* core/arena.c: bump arenas, and the scratch memory that a parser grows and gives back. The only room that allocates.
 * May use: core/arena.h, core/base.c, realloc and free. Must not know: what is kept in it. */

#include <stdlib.h>

/* Blocks double up to the last size; larger requests get a block of their own. */
#define PACKBUF_I_BLOCK_FIRST ((size_t)4096)
#define PACKBUF_I_BLOCK_LAST ((size_t)4 << 20)

typedef struct packbuf_i_arena_block {
  struct packbuf_i_arena_block *older;
  size_t size; /* of the whole block, this header included: the allocator wants it back */
} packbuf_i_arena_block;

static void *packbuf_i_default_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  (void)context;
  (void)old_size;
  if (new_size) return realloc(memory, new_size);
  free(memory);
  return NULL;
}

PACKBUF_API void packbuf_arena_init(packbuf_arena *arena, const packbuf_allocator *allocator) {
  memset(arena, 0, sizeof *arena);
  arena->limit = UINT64_MAX;
  if (allocator) {
    arena->allocator = *allocator;
  } else {
    arena->allocator.resize = packbuf_i_default_resize;
  }
}

/* Fixed: no resize function, and the context is the start of the memory. */
PACKBUF_API void packbuf_arena_init_fixed(packbuf_arena *arena, void *memory, size_t size) {
  memset(arena, 0, sizeof *arena);
  arena->limit = UINT64_MAX;
  arena->allocator.context = memory;
  arena->next = (unsigned char *)memory;
  arena->end = memory ? arena->next + size : arena->next;
}

/* A block with room for `need` bytes, not yet among the arena's. */
static packbuf_i_arena_block *packbuf_i_new_block(packbuf_arena *arena, size_t need) {
  size_t size = PACKBUF_I_BLOCK_FIRST;
  const packbuf_i_arena_block *newest = arena->blocks;
  packbuf_i_arena_block *block;
  if (newest) size = newest->size < PACKBUF_I_BLOCK_LAST / 2 ? newest->size * 2 : PACKBUF_I_BLOCK_LAST;
  if (need > SIZE_MAX - sizeof *block) return NULL;
  if (need + sizeof *block > size / 2) size = need + sizeof *block;
  block = (packbuf_i_arena_block *)arena->allocator.resize(arena->allocator.context, NULL, 0, size);
  if (!block) return NULL;
  block->size = size;
  return block;
}

/* A block that serves a single large request goes behind the newest, whose free bytes stay in use. */
static void packbuf_i_link_block(packbuf_arena *arena, packbuf_i_arena_block *block, size_t need) {
  packbuf_i_arena_block *newest = arena->blocks;
  if (newest && block->size == need + sizeof *block) {
    block->older = newest->older;
    newest->older = block;
  } else {
    block->older = newest;
    arena->blocks = block;
  }
}

PACKBUF_API void *packbuf_arena_alloc(packbuf_arena *arena, size_t size, size_t alignment) {
  size_t skip = (size_t)(0 - (uintptr_t)arena->next) & (alignment - 1);
  unsigned char *at = arena->next;
  packbuf_i_arena_block *block = NULL;
  int bump = at && skip <= (size_t)(arena->end - at) && size <= (size_t)(arena->end - at) - skip;
  if (alignment == 0 || alignment > 4096 || (alignment & (alignment - 1))) return NULL;
  if (size > arena->limit || arena->used > arena->limit - size) return NULL;
  if (!bump) {
    if (!arena->allocator.resize || size > SIZE_MAX - alignment) return NULL;
    block = packbuf_i_new_block(arena, size + alignment);
    if (!block) return NULL;
    at = (unsigned char *)(block + 1);
    skip = (size_t)(0 - (uintptr_t)at) & (alignment - 1);
  }
  /* the limit counts padding too, or aligned small requests would slip under it */
  if (skip > arena->limit - arena->used - size) {
    if (block) arena->allocator.resize(arena->allocator.context, block, block->size, 0);
    return NULL;
  }
  if (block) packbuf_i_link_block(arena, block, size + alignment);
  if (block && arena->blocks == block) arena->end = (unsigned char *)block + block->size;
  arena->used += skip + size;
  if (bump || arena->blocks == block) arena->next = at + skip + size;
  return at + skip;
}

/* Room for `count` things of `size` bytes each, 8-byte aligned; NULL: no memory, or more than there can be. */
static void *packbuf_i_array(packbuf_arena *arena, uint64_t count, size_t size) {
  uint64_t bytes;
  return packbuf_i_mul(count, size, &bytes) && bytes <= SIZE_MAX ? packbuf_arena_alloc(arena, (size_t)bytes, 8) : NULL;
}

PACKBUF_API void packbuf_arena_free(packbuf_arena *arena) {
  packbuf_i_arena_block *block = arena->blocks;
  while (block) {
    packbuf_i_arena_block *older = block->older;
    arena->allocator.resize(arena->allocator.context, block, block->size, 0);
    block = older;
  }
  arena->blocks = NULL;
  arena->used = 0;
  if (arena->allocator.resize) {
    arena->next = arena->end = NULL;
  } else {
    arena->next = (unsigned char *)arena->allocator.context;
  }
}

/* The block behind the newest that serves this one request alone: where its link is; NULL: there is none. */
static packbuf_i_arena_block **packbuf_i_own_block(packbuf_arena *arena, const unsigned char *memory) {
  packbuf_i_arena_block **link = arena->blocks ? &arena->blocks->older : NULL;
  for (; link && *link; link = &(*link)->older) {
    const uintptr_t begin = (uintptr_t)(*link + 1);
    if ((uintptr_t)memory >= begin && (uintptr_t)memory - begin < (*link)->size - sizeof **link) return link;
  }
  return NULL;
}

/* Gives back what is behind the first new_size bytes of the last packbuf_arena_alloc, of old_size bytes and this
 * alignment, as far as the allocator does: returns where they are now. */
static void *packbuf_i_arena_trim(packbuf_arena *arena, void *memory, size_t old_size, size_t new_size,
                                  size_t alignment) {
  unsigned char *at = (unsigned char *)memory, *from;
  packbuf_i_arena_block **link, *block;
  size_t begin, skip, less = old_size - new_size;
  if (at + old_size == arena->next) {
    arena->next -= less;
    arena->used -= less;
    return memory;
  }
  link = packbuf_i_own_block(arena, at);
  if (!link || (*link)->size != sizeof **link + old_size + alignment) return memory;
  begin = (size_t)(at - (unsigned char *)*link);
  block = (packbuf_i_arena_block *)arena->allocator.resize(arena->allocator.context, *link, (*link)->size,
                                                           (*link)->size - less);
  if (!block) return memory;
  block->size -= less;
  *link = block;
  from = (unsigned char *)block + begin; /* it may lie elsewhere, and begin at another place */
  at = (unsigned char *)(block + 1);
  skip = (size_t)(0 - (uintptr_t)at) & (alignment - 1);
  arena->used -= less + (size_t)(from - at);
  arena->used += skip;
  if (at + skip != from) memmove(at + skip, from, new_size);
  return at + skip;
}

/* Scratch memory for as long as a call runs: grows (memory, old size) to new_size, or frees it (new_size 0). It counts
 * against the arena's limit only while it lasts. On a fixed arena it is cut from the free bytes, and given back when
 * nothing was cut after it. 16-byte aligned; NULL: no memory. */
static void *packbuf_i_scratch(packbuf_arena *arena, void *memory, size_t old_size, size_t new_size) {
  unsigned char *old = (unsigned char *)memory;
  void *grown;
  if (new_size && (arena->used > arena->limit || new_size > arena->limit - arena->used)) return NULL;
  if (arena->allocator.resize)
    return memory || new_size ? arena->allocator.resize(arena->allocator.context, memory, old_size, new_size) : NULL;
  if (old && old + old_size == arena->next) {
    if (new_size > old_size && new_size - old_size > (size_t)(arena->end - arena->next)) return NULL;
    arena->next = old + new_size;
    arena->used = arena->used - old_size + new_size;
    return new_size ? memory : NULL;
  }
  if (!new_size) return NULL;
  grown = packbuf_arena_alloc(arena, new_size, 16);
  if (grown && old) memcpy(grown, old, old_size < new_size ? old_size : new_size);
  return grown;
}
