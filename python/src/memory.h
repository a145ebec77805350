// src/memory.h: large memory that is used again. A fresh page costs more than packing into it does, so blocks that were
// given back wait for the next batch, a few of them; and arenas on such memory. Any thread, with or without the GIL,
// and after fork: nothing here waits.
// May use: packbuf.h. Must not know: what is kept in it.
#pragma once

#include "packbuf_threads.h"

#include <cstddef>
#include <cstdint>

namespace packbuf_py {

// `size` bytes, 64-byte aligned; nullptr: there are none. May be a block that was given back, with its old bytes.
void *take_block(uint64_t size);
// Gives back what take_block gave; nullptr is fine.
void give_block(void *data);

// An arena for as long as it stands.
class Arena {
 public:
  Arena();
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;
  ~Arena() { packbuf_arena_free(&arena_); }
  packbuf_arena *get() { return &arena_; }

 private:
  packbuf_arena arena_;
};

} // namespace packbuf_py
