/* transport/shm.c: not written yet. */
