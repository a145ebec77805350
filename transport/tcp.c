/* transport/tcp.c: not written yet. */
