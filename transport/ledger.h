/* transport/ledger.h: who still wants a batch.
 * May use: batches. Must not know: which store it is. */

/* Keeps account, in one process, of batches that are to be read a number of times and then freed: consume-once, retain,
 * abort, age. The store keeps the bytes; the ledger alone decides when they go. */
typedef struct packbuf_ledger packbuf_ledger;

typedef struct packbuf_ledger_options {
  uint64_t most_bytes; /* a put beyond is LIMIT; 0: no bound */
  uint32_t attempts;   /* how often gc tries a removal that a lease delays, before it is only counted; 0: 3 */
  uint32_t readings;   /* how many releases a batch is for: consumers that read it once each; 0: 1 */
  uint8_t retain;      /* 1: the last release keeps the batch, for more epochs; only abort, gc and remove free */
} packbuf_ledger_options;

/* options NULL: zeros. The store stays open for as long. All calls from any thread, but close. Errors:
 * INVALID_ARGUMENT, OUT_OF_MEMORY. */
PACKBUF_API packbuf_status packbuf_ledger_open(packbuf_store *store, const packbuf_ledger_options *options,
                                               packbuf_ledger **ledger, packbuf_error *error);
/* Removes nothing. LEASED while reads are out. */
PACKBUF_API packbuf_status packbuf_ledger_close(packbuf_ledger *ledger, packbuf_error *error);

/* packbuf_put, and on the books. LIMIT, and nothing is put, beyond most_bytes. A key that is on the books is
 * superseded: its old ref is STALE here at once, whatever the store can. */
PACKBUF_API packbuf_status packbuf_ledger_put(packbuf_ledger *ledger, const char *key, packbuf_batch *batch,
                                              const packbuf_put_options *options, packbuf_ref *ref,
                                              packbuf_error *error);
/* Puts what another process wrote on the books (after a restart; written by a server). NOT_FOUND, STALE. */
PACKBUF_API packbuf_status packbuf_ledger_adopt(packbuf_ledger *ledger, const packbuf_ref *ref, uint64_t deadline,
                                                packbuf_error *error);
/* packbuf_get of a batch that is on the books or was never on them, counted. NOT_FOUND after release or abort, STALE
 * after another put, even where the store still has the bytes. */
PACKBUF_API packbuf_status packbuf_ledger_get(packbuf_ledger *ledger, const packbuf_ref *ref,
                                              const packbuf_get_options *options, packbuf_object *object,
                                              packbuf_error *error);
/* The same of some fields and rows, as packbuf_get_select: a reading like any, and released like one. */
PACKBUF_API packbuf_status packbuf_ledger_get_select(packbuf_ledger *ledger, const packbuf_ref *ref,
                                                     const packbuf_wanted *wanted, const packbuf_get_options *options,
                                                     packbuf_object *object, packbuf_error *error);
/* Releases the object; when it was the last one out of the newest generation of its key, it was read as often as
 * options.readings says, and the ledger does not retain, removes the batch without waiting. An object of an older
 * generation, or a second release, frees nothing. *freed (may be NULL): 1 when the batch went. A removal that a lease
 * delays, or a network for more than a second, is OK: it is pending. Errors: of packbuf_remove. */
PACKBUF_API packbuf_status packbuf_ledger_release(packbuf_ledger *ledger, packbuf_object *object, int *freed,
                                                  packbuf_error *error);
/* Releases the object, and the batch stays to be read: for a reader that failed, or never looked. Cannot fail. */
PACKBUF_API void packbuf_ledger_put_back(packbuf_ledger *ledger, packbuf_object *object);
/* Ends a batch now: gets are NOT_FOUND from here on (here; elsewhere as soon as the store can), its memory comes back
 * when the leases end. Of what is not on the books: NOT_FOUND, and it is remembered as aborted. */
PACKBUF_API packbuf_status packbuf_ledger_abort(packbuf_ledger *ledger, const packbuf_ref *ref, packbuf_error *error);
/* Tries pending removals again, then frees what is older than max_age_ms (0: nothing is) and not being read; *freed
 * (may be NULL): how many batches went. What it has not come to by the deadline stays for the next one. Errors:
 * OUT_OF_MEMORY, and of packbuf_remove, the first of them. */
PACKBUF_API packbuf_status packbuf_ledger_gc(packbuf_ledger *ledger, uint64_t max_age_ms, uint64_t deadline,
                                             uint64_t *freed, packbuf_error *error);
/* Tries pending removals, forced, until none is left; never looks whether they are gone, which would renew leases.
 * TIMEOUT with the number left in error->row. */
PACKBUF_API packbuf_status packbuf_ledger_drain(packbuf_ledger *ledger, uint64_t deadline, packbuf_error *error);

typedef struct packbuf_ledger_state {
  uint64_t batches, bytes;         /* to be read */
  uint64_t reading;                /* objects that are out */
  uint64_t pending, pending_bytes; /* removals that are not done */
  uint64_t oldest_ms;              /* age of the oldest batch to be read */
} packbuf_ledger_state;
/* Cannot fail. */
PACKBUF_API packbuf_status packbuf_ledger_describe(packbuf_ledger *ledger, packbuf_ledger_state *state,
                                                   packbuf_error *error);
