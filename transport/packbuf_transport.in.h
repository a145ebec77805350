/* packbuf_transport.h: moves packed buffers, and any other bytes, in batches over registered memory: between threads,
 * the processes of a machine, and machines.
 *
 * Define PACKBUF_IMPLEMENTATION in exactly one file before including it (that brings out packbuf.h's implementation
 * too); include it plainly elsewhere. Declarations need what packbuf.h needs. The implementation needs POSIX threads
 * and GCC's or clang's __atomic builtins; link with -pthread (glibc before 2.34: also -ldl). libibverbs and Mooncake's
 * library are loaded at run time, when a store wants them.
 *
 * The tour. packbuf_store_open (one of local: shm:NAME tcp://HOST:PORT verbs://HOST:PORT mooncake://HOST:PORT).
 * Batches: packbuf_put packs a batch straight into the store's memory and returns a ref, plain data that any control
 * plane can carry; packbuf_get takes a ref and returns a view that holds its lease, packbuf_get_select fetches only the
 * bytes of some fields and rows (packbuf_put_many, packbuf_get_many: of many keys); packbuf_append, packbuf_remove.
 * Bytes: packbuf_batch_put, _get, _stat, _remove; packbuf_submit, packbuf_poll and packbuf_store_fd for those who do
 * not wait. Memory: packbuf_pool, packbuf_reserve, packbuf_register. Consume-once: packbuf_ledger. Servers:
 * packbuf_server. Deadlines are absolute (packbuf_deadline_in). Every call returns a packbuf_status, 0 for success, but
 * for the few that cannot fail, which say so; all may be called from any number of threads at once unless they say
 * otherwise. spec/transport.md has the protocol, spec/scale.md what it costs. */

/* The implementation wants what POSIX, and of Linux a little more, has. */
#if defined(PACKBUF_IMPLEMENTATION) && !defined(PACKBUF_I_TRANSPORT_IMPLEMENTED) && !defined(_GNU_SOURCE)
#if defined(__GLIBC__) && !defined(__USE_GNU)
#error "define _GNU_SOURCE before the first #include of the file that has PACKBUF_IMPLEMENTATION"
#endif
#define _GNU_SOURCE 1
#define PACKBUF_I_GNU_SOURCE
#endif

#include "../packbuf.h" /* outside of the guard: a second inclusion may be the one that asks for the implementation */

#ifndef PACKBUF_TRANSPORT_H
#define PACKBUF_TRANSPORT_H

#ifdef __cplusplus
extern "C" {
#endif

#include "transport/time.h"
#include "transport/ref.h"
#include "transport/pool.h"
#include "transport/store.h"
#include "transport/batches.h"
#include "transport/ledger.h"
#include "transport/server.h"
#include "transport/driver.h"

#ifdef __cplusplus
}
#endif
#endif /* PACKBUF_TRANSPORT_H */

#if defined(PACKBUF_IMPLEMENTATION) && !defined(PACKBUF_I_TRANSPORT_IMPLEMENTED)
#define PACKBUF_I_TRANSPORT_IMPLEMENTED
#if !defined(__unix__) && !defined(__APPLE__)
#error "the transport needs POSIX threads"
#endif
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

/* what all rooms use */
#include "transport/system.c"
#include "transport/text.c"
#include "transport/hash.c"
#include "transport/secret.c"
#include "transport/ref.c"
#include "transport/counters.c"

/* memory */
#include "transport/buddy.c"
#include "transport/pool.c"
#include "transport/cache.c"

/* stores: what a handle is, and what each driver does with its own */
#include "transport/handle.c"
#include "transport/asked.c"
#include "transport/local.c"
#include "transport/shm_layout.c"
#include "transport/shm_session.c"
#include "transport/shm_units.c"
#include "transport/shm_slots.c"
#include "transport/shm_audit.c"
#include "transport/shm.c"
#include "transport/frames.c"
#include "transport/sockets.c"
#include "transport/verbs_abi.c"
#include "transport/verbs.c"
#include "transport/tcp.c"
#include "transport/verbs_client.c"
#include "transport/mooncake_engine.c"
#include "transport/mooncake_items.c"
#include "transport/mooncake.c"

/* what users call */
#include "transport/items.c"
#include "transport/workers.c"
#include "transport/calls.c"
#include "transport/server_link.c"
#include "transport/server_verbs.c"
#include "transport/server.c"
#include "transport/metrics.c"
#include "transport/doctor.c"

/* batches of rows */
#include "transport/put.c"
#include "transport/get.c"
#include "transport/append.c"
#include "transport/ledger.c"

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif /* PACKBUF_IMPLEMENTATION */

#ifdef PACKBUF_I_GNU_SOURCE
#undef PACKBUF_I_GNU_SOURCE
#undef _GNU_SOURCE
#endif
