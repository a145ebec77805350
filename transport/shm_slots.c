/* transport/shm_slots.c: not written yet. */
