/* transport/ledger.c: not written yet. */
