#!/usr/bin/env bash
# TAP: mingw-w64 (64-bit Windows, where long has 32 bits) compiles packbuf.h, as C and as C++, warnings as errors, and links it.
. "$(dirname "$0")/../tap.sh"
prefix=x86_64-w64-mingw32
echo '#include "packbuf.h"' >"$tmp/alone.c"
printf '#define PACKBUF_IMPLEMENTATION\n#include "packbuf.h"\n' >"$tmp/impl.c"
printf '#define PACKBUF_IMPLEMENTATION\n#include "packbuf.h"\nint main(void) { return packbuf_checksum(0, "123456789", 9) != 0xE3069283u; }\n' >"$tmp/program.c"

compile() { # COMPILER LANGUAGE STANDARD FILE [FLAGS...]
    # shellcheck disable=SC2086
    $prefix-"$1" -x "$2" -std="$3" $warnings -I. "${@:5}" -c -o "$tmp/$4.o" "$tmp/$4.c"
}

for entry in gcc:c:c99 gcc:c:c11 g++:c++:c++17; do
    IFS=: read -r compiler language standard <<<"$entry"
    tap_run "$compiler $standard: header alone" compile "$compiler" "$language" "$standard" alone
    for flags in -O2 '-O2 -DPACKBUF_NO_SIMD=1' '-O2 -DPACKBUF_API=static -Wno-unused-function'; do
        # shellcheck disable=SC2086
        tap_run "$compiler $standard: implementation, $flags" compile "$compiler" "$language" "$standard" impl $flags
    done
done
link() { compile gcc c c11 program -O1 && $prefix-gcc -o "$tmp/program.exe" "$tmp/program.o"; }
tap_run 'gcc c11: a program' link
tap_done
