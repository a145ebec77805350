/* transport/metrics.c: not written yet. */
