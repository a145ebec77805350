/* packbuf.h with its implementation (or another header, -DPACKBUF_HEADER='"..."') all to oneself, for tests that call
 * functions of no one else's business. All is static: what a test does not call costs the compiler hardly anything. */
#ifndef INTERNALS_H
#define INTERNALS_H

#define PACKBUF_API static
#define PACKBUF_IMPLEMENTATION
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#ifdef PACKBUF_HEADER
#include PACKBUF_HEADER
#else
#include "../packbuf.h"
#endif
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#endif
