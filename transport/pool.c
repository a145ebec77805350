/* transport/pool.c: not written yet. */
