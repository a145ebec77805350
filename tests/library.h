/* What the tests of a machine with POSIX threads link: packbuf.h, packbuf_threads.h, the transport and the exchange,
 * compiled once. */
#include "../transport/packbuf_transport.h"
#include "../packbuf_threads.h"
#include "../exchange/packbuf_exchange.h"
