/* tools/stores.h: what the commands on stores share.
 * May use: tool.h, packbuf_transport.h (the public part alone). Must not know: how a store does it. */
#ifndef PACKBUF_TOOL_STORES_H
#define PACKBUF_TOOL_STORES_H
#include "tool.h"

#include "../transport/packbuf_transport.h"

/* A store that is open, and how long each call may take. */
typedef struct opened {
  packbuf_store *store;
  packbuf_store_info info;
  uint64_t timeout_ms;
} opened;

/* An object as the command line names it: whatever is newest under a key, or a ref. */
typedef struct named {
  packbuf_ref ref;
  int exact; /* it is a ref */
} named;

uint64_t deadline_of(const opened *from);
/* makes: a store that is not there may be made, where the URI has its size. */
void store_open(const verb *command, const char *uri, const char *timeout, int makes, int reads, opened *to);
void store_close(opened *from, const char *uri);
/* The items of a batch for the words of a command line. */
packbuf_item *name_items(const strings *words, size_t first, named **names);
/* One line for an item that failed. */
void say_item(const packbuf_item *item);
/* All of a listing, by key, each object once. */
packbuf_listed *list_all(opened *in, const char *uri, const char *prefix, size_t *count);

/* Errors of the system are said in its words, and nothing of rows: what failed is one object, or the store. */
void fail_call(const char *what, packbuf_error *error) TOOL_NORETURN;
/* `,"name":number`; UINT64_MAX, which is what is not known or has no end, as null. */
void number_json(text *to, const char *name, uint64_t number);

/* Starts a server of iperf3 on this machine, until the program ends; ends the program where that cannot be. */
void iperf3_start(const char *uri);
/* One stream of `bytes` in pieces of `size` to the host of a tcp:// URI (receives: from it): GB/s. congestion:
 * control of it; NULL: the system's. */
double iperf3_rate(const char *uri, uint64_t size, uint64_t bytes, int receives, const char *congestion);

#endif
