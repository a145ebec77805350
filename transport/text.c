/* transport/text.c: not written yet. */
