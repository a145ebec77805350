/* An allocator that fails, for tests of what happens when memory runs out. Test-only; include after packbuf.h.
 *
 *     failing f = failing_at(i, 0);                 calls 0 to i - 1 get memory, call i and all after it do not
 *     failing f = failing_at(i, 1);                 call i alone does not
 *     packbuf_allocator from = failing_allocator(&f);
 */
#ifndef FAILING_H
#define FAILING_H

#include <stdlib.h>

typedef struct failing {
  unsigned long calls, at; /* calls for memory so far; the one that fails */
  int once;
} failing;

static inline failing failing_at(unsigned long at, int once) {
  failing f;
  f.calls = 0;
  f.at = at;
  f.once = once;
  return f;
}

static inline void *failing_resize(void *context, void *memory, size_t old_size, size_t new_size) {
  failing *f = (failing *)context;
  (void)old_size;
  if (!new_size) {
    free(memory);
    return NULL;
  }
  f->calls++;
  if (f->calls == f->at + 1 || (!f->once && f->calls > f->at)) return NULL;
  return realloc(memory, new_size);
}

static inline packbuf_allocator failing_allocator(failing *f) {
  packbuf_allocator allocator;
  allocator.resize = failing_resize;
  allocator.context = f;
  return allocator;
}

#endif
