/* transport/pool.h: memory that is registered once, in slices; and leases, which are slices that others filled.
 * May use: time. Must not know: stores. */

/* A slice: memory to fill, leased. Fields are for reading. May be copied as long as one copy alone is given back. */
typedef struct packbuf_slice {
  void *data;    /* aligned to 4096 */
  uint64_t size; /* as asked for */
  struct packbuf_i_holder *holder;
  uint64_t token;
} packbuf_slice;

/* Bytes of an object, leased: nobody changes or reuses them before the lease is given back. May be copied as long as
 * one copy alone is given back. Read-only memory in shm. */
typedef struct packbuf_lease {
  const void *data; /* aligned to 4096 (ranges: to nothing) */
  uint64_t size;
  struct packbuf_i_holder *holder;
  uint64_t token;
} packbuf_lease;
/* From any thread; clears it; an empty one is fine. Cannot fail. */
PACKBUF_API void packbuf_lease_release(packbuf_lease *lease);

/* A slab of memory that hands out slices: its pages are touched, and it is registered with each store that uses it,
 * once. Size classes are powers of two; what a slice leaves over of one is handed out again, so that a slice takes its
 * size rounded up to 4096. Of one process; children after fork must not use it. */
typedef struct packbuf_pool packbuf_pool;

typedef struct packbuf_pool_options {
  uint64_t size;      /* bytes; 0: 256 MiB */
  void *memory;       /* the caller's, aligned to 4096, which outlives the pool; NULL: the pool maps its own */
  uint8_t huge_pages; /* 0: when they are to be had (MAP_HUGETLB, else madvise), 1: never, 2: UNAVAILABLE without */
  uint8_t untouched;  /* 1: pages are not touched at once: the first use of each takes longer */
  const packbuf_allocator *allocator; /* for its tables (0.22 % of the slab): as of packbuf_store_options */
} packbuf_pool_options;

/* options NULL: the defaults. Errors: OUT_OF_MEMORY, UNAVAILABLE (huge_pages 2), INVALID_ARGUMENT. */
PACKBUF_API packbuf_status packbuf_pool_open(const packbuf_pool_options *options, packbuf_pool **pool,
                                             packbuf_error *error);
/* LEASED, and nothing is done, while slices are out or a store uses it. One thread, once. NULL is fine. */
PACKBUF_API packbuf_status packbuf_pool_close(packbuf_pool *pool, packbuf_error *error);

#define PACKBUF_ACCOUNTS 64u /* accounts are 0 to 63: whom slices are charged to */

/* The most bytes that slices of one account may take at a time; UINT64_MAX: no bound (the default). A consumer that
 * keeps what it got runs into its own quota while others get slices. Counts from the next slice on. INVALID_ARGUMENT:
 * no such account. */
PACKBUF_API packbuf_status packbuf_pool_quota(packbuf_pool *pool, uint32_t account, uint64_t bytes,
                                              packbuf_error *error);

/* `count` slices of these sizes (1 or more bytes), all or none. Waits to the deadline for slices to come back, first
 * come first served within an account. Errors: QUOTA, FULL when the deadline passes (PACKBUF_NO_WAIT: at once);
 * CAPACITY when they could never be had together, QUOTA at once when one account never may; INVALID_ARGUMENT (account,
 * a size of 0), OUT_OF_MEMORY. Contents are what the last user left. */
PACKBUF_API packbuf_status packbuf_pool_take(packbuf_pool *pool, uint32_t account, const uint64_t *sizes,
                                             uint64_t count, uint64_t deadline, packbuf_slice *slices,
                                             packbuf_error *error);
/* Gives a slice back, from any thread, and clears it; an empty one is fine. Cannot fail. */
PACKBUF_API void packbuf_slice_release(packbuf_slice *slice);
