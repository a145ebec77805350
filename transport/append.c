/* transport/append.c: not written yet. */
