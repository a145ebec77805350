/* transport/batches.h: whole batches of rows in stores.
 * May use: store. Must not know: which store it is. */

/* Packs a batch as packbuf_write does, with other threads: context, then packbuf_write's arguments. A line around
 * packbuf_thread_pool_write will do. */
typedef packbuf_status (*packbuf_writer)(void *context, packbuf_batch *batch, void *dst, uint64_t capacity,
                                         uint64_t *size, packbuf_error *error);

/* Start from zero, but for the deadline; NULL: the same without a deadline. */
typedef struct packbuf_put_options {
  uint64_t deadline; /* for room and transfer; packing itself is not interrupted */
  uint32_t account, ttl_ms, flags;
  uint8_t no_fingerprint; /* 1: the ref has none: saves a SHA-256 of the schema for each put */
  uint8_t join_flags;     /* of packbuf_append: with which the whole will be got; it refuses what they cannot join */
  packbuf_writer write;   /* NULL: packbuf_write, in this thread */
  void *write_context;
} packbuf_put_options;

/* Measures the batch, reserves room (of the exact size; packed: of the bound, the rest is given back), packs into it,
 * in one copy, puts, and fills in *ref (may be NULL). _many: batch i under keys[i], as many at a time as half the
 * memory holds: their rooms reserved, packed, put in one batch; refs[i] and statuses[i] (each array may be NULL) say
 * what became of each. A batch that cannot be packed fails alone. Errors: those of packbuf_measure, packbuf_write,
 * packbuf_reserve and packbuf_batch_put. One thread at a time for each batch. */
PACKBUF_API packbuf_status packbuf_put(packbuf_store *store, const char *key, packbuf_batch *batch,
                                       const packbuf_put_options *options, packbuf_ref *ref, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_put_many(packbuf_store *store, const char *const *keys,
                                            packbuf_batch *const *batches, uint64_t count,
                                            const packbuf_put_options *options, packbuf_ref *refs,
                                            packbuf_status *statuses, packbuf_error *error);

/* Which fields and rows to fetch, as packbuf_select takes them; rows are those of each batch; of a manifest those of
 * the whole, of which the selection of each fragment has those that it holds, in the order that was asked for. */
typedef struct packbuf_wanted {
  const char *const *patterns;
  size_t pattern_count;
  packbuf_row_selection rows;
  uint64_t gap;   /* bytes: ranges with at most so many between them are fetched as one */
  unsigned flags; /* PACKBUF_RANGES_CHUNKS: whole chunks, whose checksums are then verified */
  uint8_t values; /* 1: the batch values too */
} packbuf_wanted;

/* Start from zero, but for the deadline; NULL: the same without a deadline. */
typedef struct packbuf_get_options {
  uint64_t deadline;
  uint32_t account;
  uint8_t level;                /* packbuf_level to verify at; 0: the head's checksum and records */
  uint8_t join_flags;           /* of packbuf_join_init, for manifests: PACKBUF_WIDEN, ... */
  const packbuf_limits *limits; /* NULL: the defaults */
  const uint8_t *fingerprint;   /* 16 bytes that the schema must have, else SCHEMA_MISMATCH; NULL: any */
} packbuf_get_options;

/* A batch that was got. Fields are for reading, until packbuf_object_release; it holds the lease. May be copied as
 * long as one copy alone is released. Any number of threads may read through it. */
typedef struct packbuf_object {
  packbuf_status status;
  packbuf_ref ref;           /* with the generation that it is */
  const packbuf_view *views; /* views[0]; of a manifest: one for each fragment, in its order */
  uint32_t view_count;
  const packbuf_join *join;           /* of a manifest: its fragments as one batch; else NULL */
  const packbuf_selection *selection; /* of packbuf_get_select: view_count of them, fields; else NULL */
  const packbuf_selection *values;    /* batch values, when they were wanted; else NULL */
  uint64_t moved;                     /* bytes transferred for it: 0 where it is read in place */
  struct packbuf_i_object *inner;
} packbuf_object;

/* A ref to whatever is newest under a key: what the command's `get` does. Consumers are given refs. Cannot fail: of
 * what is no key, a ref that every call refuses. */
PACKBUF_API packbuf_ref packbuf_ref_newest(const char *key);

/* Leases, opens and checks (length and head checksum against the ref). _select reads head and index (one round for all
 * keys), then the ranges of what is wanted (one more), into memory of the account, and nothing else; where it can be
 * read in place nothing is read. A manifest takes a round more. _many: objects[i].status for each; wanted may be NULL.
 * Errors: those of packbuf_batch_get, packbuf_open, packbuf_select, packbuf_join_init; FRAGMENT_MISMATCH when the
 * object is not what the ref says; BAD_MANIFEST when a manifest lists nothing; SCHEMA_MISMATCH;
 * UNSUPPORTED_OPERATION for a fingerprint of fields that lie in several fragments; DATA_CHECKSUM. */
PACKBUF_API packbuf_status packbuf_get(packbuf_store *store, const packbuf_ref *ref, const packbuf_get_options *options,
                                       packbuf_object *object, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_get_select(packbuf_store *store, const packbuf_ref *ref,
                                              const packbuf_wanted *wanted, const packbuf_get_options *options,
                                              packbuf_object *object, packbuf_error *error);
PACKBUF_API packbuf_status packbuf_get_many(packbuf_store *store, const packbuf_ref *refs, uint64_t count,
                                            const packbuf_wanted *wanted, const packbuf_get_options *options,
                                            packbuf_object *objects, packbuf_error *error);
/* Gives back memory and lease; the views are gone. From any thread; an empty one is fine. Cannot fail. */
PACKBUF_API void packbuf_object_release(packbuf_object *object);

/* Adds rows or fields to a stored batch: puts the new batch as an object of its own, then a manifest that lists the old
 * one (or all that the old manifest lists) and the new. No old byte is written; the old ref stays good; *appended names
 * the whole. Two who append to one ref make two wholes. For fields, both batches must have one row_order_token
 * (ROW_ORDER). What packbuf_get with options->join_flags, and then packbuf_join_batch, would refuse is refused here,
 * before anything is put: SCHEMA_MISMATCH with the path and both types where rows have another type than those there,
 * lack a field or bring one, or batch values or metadata differ. Errors: those of packbuf_get, packbuf_put,
 * packbuf_join_init and packbuf_manifest_init. */
PACKBUF_API packbuf_status packbuf_append(packbuf_store *store, const packbuf_ref *ref, packbuf_batch *batch,
                                          packbuf_appends appends, const packbuf_put_options *options,
                                          packbuf_ref *appended, packbuf_error *error);

/* Removes a batch; of a manifest all that it lists and the manifests before it, itself last, so that a removal that was
 * broken off can be repeated: those of its own key, up to a '#', as packbuf_append names them; what else a manifest may
 * list is somebody else's, and stays. What is gone already is no error. As packbuf_batch_remove otherwise. */
PACKBUF_API packbuf_status packbuf_remove(packbuf_store *store, const packbuf_ref *ref, uint64_t deadline,
                                          packbuf_error *error);
