/* transport/get.c: not written yet. */
