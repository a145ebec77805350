/* transport/shm_session.c: not written yet. */
