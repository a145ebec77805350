/* tools/library.c: the one file of the command that holds the library's implementation. */
#define PACKBUF_IMPLEMENTATION
#include "../transport/packbuf_transport.h" /* first: it says which part of the system's headers it wants */
