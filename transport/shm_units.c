/* transport/shm_units.c: not written yet. */
