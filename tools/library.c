/* tools/library.c: the one file of the command that holds the library's implementation. */
#define PACKBUF_IMPLEMENTATION
#include "../packbuf.h"
