/* transport/calls.c: not written yet. */
