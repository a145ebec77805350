/* transport/counters.c: not written yet. */
