/* transport/workers.c: not written yet. */
