/* transport/ref.c: not written yet. */
