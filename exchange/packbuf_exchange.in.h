/* packbuf_exchange.h: packed buffers as others have arrays: the Arrow C data and stream interfaces, and DLPack.
 *
 * Define PACKBUF_IMPLEMENTATION in exactly one file before including it (that brings out packbuf.h's implementation
 * too); include it plainly elsewhere. It needs what packbuf.h needs, and neither Arrow nor DLPack: the structs of their
 * ABIs are declared here, unless their own headers came first.
 *
 * The tour. Out: packbuf_select (packbuf.h) chooses fields and rows; packbuf_arrow_schema, packbuf_arrow_array and
 * packbuf_arrow_stream give them to whoever reads Arrow, packbuf_dlpack one column to whoever computes with tensors.
 * What lies in the packed buffer as they want it is lent, the rest is copied; packbuf_hold keeps the memory alive. In:
 * packbuf_arrow_import adds the columns of a record batch, in one or more chunks, to a batch, packbuf_arrow_add one
 * column, packbuf_dlpack_import makes a tensor for packbuf_add_tensor. spec/exchange.md has the mapping, and what is
 * lost. */
#include "../packbuf.h" /* outside of the guard: a second inclusion may be the one that asks for the implementation */

#ifndef PACKBUF_EXCHANGE_H
#define PACKBUF_EXCHANGE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "exchange/arrow_abi.h"
#include "exchange/dlpack_abi.h"
#include "exchange/exchange.h"

#ifdef __cplusplus
}
#endif
#endif /* PACKBUF_EXCHANGE_H */

#if defined(PACKBUF_IMPLEMENTATION) && !defined(PACKBUF_I_EXCHANGE_IMPLEMENTED)
#define PACKBUF_I_EXCHANGE_IMPLEMENTED
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

/* out */
#include "exchange/owned.c"
#include "exchange/lend.c"
#include "exchange/arrow_words.c"
#include "exchange/arrow_schema.c"
#include "exchange/arrow_gather.c"
#include "exchange/arrow_export.c"
#include "exchange/arrow_stream.c"
#include "exchange/dlpack.c"

/* in */
#include "exchange/arrow_type.c"
#include "exchange/arrow_check.c"
#include "exchange/arrow_numbers.c"
#include "exchange/arrow_values.c"
#include "exchange/arrow_import.c"

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif /* PACKBUF_IMPLEMENTATION */
