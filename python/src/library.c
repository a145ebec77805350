/* src/library.c: the C core, the transport and the exchange, compiled once for the module; nothing of them is exported.
 * May use: packbuf_transport.h, packbuf_threads.h, packbuf_exchange.h. Must not know: Python. */
#define PACKBUF_IMPLEMENTATION
#include "transport/packbuf_transport.h"

#include "packbuf_threads.h"
#include "exchange/packbuf_exchange.h"
