/* core/options.h: version and compile-time options.
 * May use: C standard headers. Must not know: any other room. */

#include <stddef.h>
#include <stdint.h>

#define PACKBUF_VERSION_MAJOR 0
#define PACKBUF_VERSION_MINOR 1
#define PACKBUF_VERSION_PATCH 0
#define PACKBUF_VERSION (PACKBUF_VERSION_MAJOR * 1000000 + PACKBUF_VERSION_MINOR * 1000 + PACKBUF_VERSION_PATCH)
#define PACKBUF_FORMAT_MAJOR 1 /* of spec/packbuf.md */
#define PACKBUF_FORMAT_MINOR 0

/* Options: define before including, the same in every file of a program.
 *
 *   PACKBUF_IMPLEMENTATION  defined in exactly one C or C++ file (or in each, together with PACKBUF_API static)
 *   PACKBUF_API             linkage of the public functions; `static` keeps them private to the file
 *   PACKBUF_NO_SIMD         1: plain C, no CPU detection, no intrinsics (checksums and UTF-8 some 5 x slower)
 *   PACKBUF_SIMDE           1: includes SIMDe (simde/x86/sse4.2.h must be found) for one more set of kernels of
 *                           packing: chosen on ARM, a set to test on x86-64, nothing under PACKBUF_NO_SIMD
 */
#ifndef PACKBUF_API
#define PACKBUF_API extern
#endif
#ifndef PACKBUF_NO_SIMD
#define PACKBUF_NO_SIMD 0
#endif
#ifndef PACKBUF_SIMDE
#define PACKBUF_SIMDE 0
#endif

#ifdef __cplusplus
extern "C" {
#endif
