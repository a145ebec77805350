/* What the tests of any machine link: packbuf.h, packbuf_threads.h and the exchange, compiled once. */
#include "../packbuf_threads.h"
#include "../exchange/packbuf_exchange.h"
