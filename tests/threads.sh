#!/usr/bin/env bash
# tests/threads.c under ThreadSanitizer, and with C11 threads instead of pthreads.
. "$(dirname "$0")/tap.sh"

threads() { # NAME FLAGS...
    # shellcheck disable=SC2086
    ${CC:-gcc} -std=c11 $warnings -O1 -g1 -DPACKBUF_IMPLEMENTATION -I. "${@:2}" -o "$tmp/$1" tests/threads.c -pthread -lm && "$tmp/$1"
}

if echo 'int main(void) { return 0; }' | ${CC:-gcc} -x c - -fsanitize=thread -o "$tmp/probe" 2>/dev/null && "$tmp/probe"; then
    tap_run 'no data race' threads tsan -fsanitize=thread
else
    tap_skip 'no data race' 'no ThreadSanitizer'
fi
tap_run 'C11 threads' threads c11 -DPACKBUF_THREADS_C11=1
tap_done
