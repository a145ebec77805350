/* transport/hash.c: not written yet. */
