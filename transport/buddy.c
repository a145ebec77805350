/* transport/buddy.c: not written yet. */
