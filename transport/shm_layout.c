/* transport/shm_layout.c: not written yet. */
