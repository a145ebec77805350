/* transport/local.c: not written yet. */
