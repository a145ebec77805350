/* transport/time.h: deadlines.
 * May use: packbuf.h. */

/* A deadline is a time of CLOCK_MONOTONIC in nanoseconds. What has not ended by then ends with TIMEOUT. Under
 * PACKBUF_NO_WAIT what cannot be done at once fails with what it would have waited for (FULL, QUOTA, LEASED); what
 * needs a network or an engine has some 50 ms for it all the same, then it is TIMEOUT. */
#define PACKBUF_NO_WAIT 0u
#define PACKBUF_FOREVER UINT64_MAX

/* Now; and now + milliseconds (saturates below PACKBUF_FOREVER). Cannot fail. */
PACKBUF_API uint64_t packbuf_now(void);
PACKBUF_API uint64_t packbuf_deadline_in(uint64_t milliseconds);
