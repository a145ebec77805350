#!/usr/bin/env bash
# TAP: what including packbuf.h costs. Without the implementation: only C standard headers, at most 3,000 preprocessed lines (those
# that are not blank after -E -P, the standard headers' own among them). With it: at -Os within 5 % of the kept tests/budget.txt.
. "$(dirname "$0")/tap.sh"
most_lines=3000
standard=' assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype '

lines() { # COMPILER LANGUAGE STANDARD
    local count
    count=$(printf '#include "packbuf.h"\n' | "$1" -x "$2" -std="$3" -I. -E -P - | grep -c '[^[:space:]]')
    echo "# $1 $3: $count preprocessed lines of $most_lines" >&3
    [ "$count" -gt 100 ] && [ "$count" -le $most_lines ]
}

headers() { # COMPILER LANGUAGE STANDARD: what packbuf.h itself includes, and that it includes something
    local names name others=
    names=$(printf '#include "packbuf.h"\n' | "$1" -x "$2" -std="$3" -I. -H -fsyntax-only - 2>&1 >/dev/null | sed -n 's|^\.\. .*/\([^/]*\)\.h$|\1|p' | sort -u)
    echo "# $1 $3: includes" $names >&3
    for name in $names; do
        case $standard in *" $name "*) ;; *) others+=" $name.h" ;; esac
    done
    [ -n "$names" ] && [ -z "$others" ] || { echo "not of the C standard:$others"; return 1; }
}

size_of() { # COMPILER: text and constants of the implementation in KiB, at -Os
    printf '#define PACKBUF_IMPLEMENTATION\n#include "packbuf.h"\n' >"$tmp/size.c"
    "$1" -std=c11 -Os -I. -c -o "$tmp/size.o" "$tmp/size.c" || return
    size -A "$tmp/size.o" | awk '$1 ~ /^\.(text|rodata|data\.rel\.ro)/ { bytes += $2 } END { printf "%.1f\n", bytes / 1024 }'
}

implementation() { # COMPILER
    local kept now
    kept=$(sed -n "s/^$1 //p" tests/budget.txt)
    now=$(size_of "$1") || return
    echo "# $1: the implementation at -Os takes $now KiB, kept are $kept KiB" >&3
    awk "BEGIN { exit !($now > 1 && $now <= $kept * 1.05) }" || { echo "$now KiB is more than 5 % over $kept KiB: see tests/budget.txt"; return 1; }
}

exec 3>&1
for entry in gcc:c:c11 gcc:c:c99 clang:c:c11 g++:c++:c++17 clang++:c++:c++17; do
    IFS=: read -r compiler language std <<<"$entry"
    if ! command -v "$compiler" >/dev/null; then
        tap_skip "$compiler $std" "no $compiler"
        continue
    fi
    tap_run "$compiler $std: at most $most_lines lines" lines "$compiler" "$language" "$std"
    tap_run "$compiler $std: only C standard headers" headers "$compiler" "$language" "$std"
done
for compiler in gcc clang; do
    if ! command -v $compiler >/dev/null; then tap_skip "$compiler -Os" "no $compiler"
    elif [ "$(uname -m)" != x86_64 ]; then tap_skip "$compiler -Os" 'the kept figure is that of x86-64'
    else tap_run "$compiler -Os: within 5 % of the kept size" implementation $compiler; fi
done
tap_done
