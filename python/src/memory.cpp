// src/memory.cpp: a few slots for blocks that were given back. A slot is emptied and filled by one atomic exchange, so
// that a forked child never finds a lock that nobody will open.
// May use: memory.h. Must not know: what is kept in it.
#include "memory.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iterator>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace packbuf_py {

namespace {

constexpr uint64_t most_kept = 64 << 20;  // bytes of all blocks that wait
constexpr uint64_t least_kept = 64 << 10; // malloc keeps smaller ones itself
constexpr uint64_t huge = 2 << 20;        // a huge page

// In front of its bytes.
struct alignas(64) Block {
  uint64_t room; // bytes behind this
};

struct Slot {
  std::atomic<Block *> block{nullptr};
  std::atomic<uint64_t> room{0}; // of the last block: a hint, true or not
};

Slot waiting[16];
std::atomic<uint64_t> kept{0};
std::atomic<unsigned> hand{0}; // the slot whose block goes next when there are too many

bool is_free(const Slot &slot) { return !slot.block; }

// A block that waits in a slot from now on; false: all are full.
bool put_away(Block *block) {
  for (Slot &slot : waiting) {
    Block *none = nullptr;
    const uint64_t room = block->room;
    if (!slot.block.compare_exchange_strong(none, block)) continue;
    slot.room = room;
    return true;
  }
  return false;
}

// Takes the block out of a slot, for its owner alone; nullptr: there is none.
Block *take_out(Slot &slot) {
  Block *block = slot.block.exchange(nullptr);
  if (block) kept -= block->room;
  return block;
}

// Makes room for a block that was used just now: what waits longer goes.
void drop_others(uint64_t room) {
  for (unsigned i = 0; i < std::size(waiting); i++) {
    if (kept + room <= most_kept && std::any_of(std::begin(waiting), std::end(waiting), is_free)) return;
    free(take_out(waiting[hand++ % std::size(waiting)]));
  }
}

// The least block with room enough, and not much more than that: what is asked for again and again gets the same one,
// which is still in the caches.
Block *waiting_block(uint64_t size) {
  Slot *best = nullptr;
  for (Slot &slot : waiting)
    if (!is_free(slot) && slot.room >= size && slot.room / 2 <= size && (!best || slot.room < best->room)) best = &slot;
  Block *block = best ? take_out(*best) : nullptr;
  if (!block || (block->room >= size && block->room / 2 <= size)) return block;
  free(block); // another thread was here in between
  return nullptr;
}

// Sizes are rounded to eighths of a power of two: the next batch is seldom of the very same size.
uint64_t rounded(uint64_t size) {
  uint64_t step = 64;
  while (step * 16 <= size) step *= 2;
  return (size + step - 1) / step * step;
}

Block *new_block(uint64_t size) {
  const uint64_t alignment = size < 2 * huge ? alignof(Block) : huge;
  const uint64_t room = rounded(size), whole = (sizeof(Block) + room + alignment - 1) / alignment * alignment;
  void *memory = aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(whole));
  if (!memory) return nullptr;
#ifdef MADV_HUGEPAGE
  if (alignment == huge) madvise(memory, static_cast<size_t>(whole), MADV_HUGEPAGE); // where it is off: fine too
#endif
  auto *block = static_cast<Block *>(memory);
  block->room = whole - sizeof(Block);
  return block;
}

void *resize(void *, void *memory, size_t old_size, size_t new_size) {
  void *fresh = nullptr;
  const bool was_block = memory && old_size >= least_kept, becomes_block = new_size >= least_kept;
  if (!was_block && !becomes_block) {
    if (new_size) return realloc(memory, new_size);
    free(memory);
    return nullptr;
  }
  if (was_block && becomes_block && new_size <= old_size) return memory;
  if (new_size && !(fresh = becomes_block ? take_block(new_size) : malloc(new_size))) return nullptr;
  if (memory && fresh) memcpy(fresh, memory, old_size < new_size ? old_size : new_size);
  if (was_block) give_block(memory);
  else free(memory);
  return fresh;
}

} // namespace

void *take_block(uint64_t size) {
  if (size > SIZE_MAX / 2) return nullptr;
  Block *block = size < least_kept ? nullptr : waiting_block(size);
  if (!block) block = new_block(size);
  return block ? block + 1 : nullptr;
}

void give_block(void *data) {
  if (!data) return;
  Block *block = static_cast<Block *>(data) - 1;
  if (block->room >= least_kept && block->room <= most_kept) {
    drop_others(block->room);
    kept += block->room;
    if (put_away(block)) return;
    kept -= block->room;
  }
  free(block);
}

Arena::Arena() {
  const packbuf_allocator allocator = {resize, nullptr};
  packbuf_arena_init(&arena_, &allocator);
}

} // namespace packbuf_py
