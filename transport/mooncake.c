/* transport/mooncake.c: not written yet. */
