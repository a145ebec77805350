/* transport/handle.c: not written yet. */
