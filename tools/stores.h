/* tools/stores.h: what the commands on stores share.
 * May use: tool.h, packbuf_transport.h (the public part alone). Must not know: how a store does it. */
#ifndef PACKBUF_TOOL_STORES_H
#define PACKBUF_TOOL_STORES_H
#include "tool.h"

#include "../transport/packbuf_transport.h"

/* Errors of the system are said in its words, and nothing of rows: what failed is one object, or the store. */
void fail_call(const char *what, packbuf_error *error) TOOL_NORETURN;
/* `,"name":number`; UINT64_MAX, which is what is not known or has no end, as null. */
void number_json(text *to, const char *name, uint64_t number);

/* Starts a server of iperf3 on this machine, until the program ends; ends the program where that cannot be. */
void iperf3_start(const char *uri);
/* One stream of `bytes` in pieces of `size` to the host of a tcp:// URI (receives: from it): GB/s. */
double iperf3_rate(const char *uri, uint64_t size, uint64_t bytes, int receives);

#endif
