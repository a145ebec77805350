/* What the tests of a machine with POSIX threads link: packbuf.h, packbuf_threads.h and the transport, compiled once. */
#include "../transport/packbuf_transport.h"
#include "../packbuf_threads.h"
