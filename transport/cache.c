/* transport/cache.c: not written yet. */
