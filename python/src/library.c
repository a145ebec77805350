/* src/library.c: the C core and the transport, compiled once for the module; nothing of them is exported.
 * May use: packbuf_transport.h, packbuf_threads.h. Must not know: Python. */
#define PACKBUF_IMPLEMENTATION
#include "transport/packbuf_transport.h"

#include "packbuf_threads.h"
