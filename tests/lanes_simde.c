/* tests/lanes_simde.c: tests/lanes.c for the set of kernels that SIMDe makes, on x86 without what is native there.
 * May use: what tests/lanes.c may. Must not know: what it must not. */
#if defined(__has_include)
#if __has_include(<simde/x86/sse4.2.h>)
#define PACKBUF_SIMDE 1
#endif
#endif
#if defined(PACKBUF_SIMDE)
#if defined(__x86_64__)
#define SIMDE_NO_NATIVE
#endif
#include "lanes.c"
#else
#include "tap.h"
int main(void) {
  tap_skip("no SIMDe (Debian: libsimde-dev)");
  return tap_plan_done();
}
#endif
