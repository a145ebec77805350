/* transport/server.c: not written yet. */
