/* transport/frames.c: not written yet. */
