/* src/library.c: the C core, compiled once for the module; nothing of it is exported.
 * May use: packbuf_threads.h, packbuf_exchange.h. Must not know: Python. */
#define PACKBUF_IMPLEMENTATION
#include "packbuf_threads.h"
#include "exchange/packbuf_exchange.h"
