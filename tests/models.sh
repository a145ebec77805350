#!/usr/bin/env bash
# TAP: the choice of kernels on processors that lack what this one has: tests/processors.c under models of x86-64 from the first to
# recent ones, where an instruction that was not looked for traps. AVX-512 is beyond the emulator.
. "$(dirname "$0")/tap.sh"

model() { # MODEL SET CHECKSUMS
    qemu-x86_64 -cpu "$1" build/tests/native/processors >"$tmp/$1.log" 2>"$tmp/$1.err"
    local code=$?
    grep -a '^# features\|ran for' "$tmp/$1.log"
    grep -a -A3 '^not ok' "$tmp/$1.log" | head -n 20
    cat "$tmp/$1.err"
    [ $code = 0 ] && grep -aq "chosen: set $2, checksums $3\$" "$tmp/$1.log"
}

if [ "$(uname -m)" != x86_64 ]; then tap_skip models 'not an x86-64 machine'
elif ! command -v qemu-x86_64 >/dev/null; then tap_skip models 'no qemu-x86_64'
elif ! "${MAKE:-make}" -s build/tests/native/processors >"$tmp/log" 2>&1; then tap_result '' 'tests/processors.c compiles' "$tmp/log"
else
    tap_run 'qemu64: SSE2 alone' model qemu64 vector plain
    tap_run 'Nehalem: CRC, but no carry-less product' model Nehalem vector plain
    tap_run 'Westmere: both' model Westmere vector sse42
    tap_run 'Sandy Bridge: AVX' model SandyBridge vector sse42
    tap_run 'Haswell: AVX2' model Haswell avx2 sse42
    tap_run 'EPYC: AVX2 with slow pext' model EPYC avx2slow sse42
fi
tap_done
