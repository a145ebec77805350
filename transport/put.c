/* transport/put.c: not written yet. */
