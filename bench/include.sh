#!/usr/bin/env bash
# What including packbuf.h costs a build: milliseconds to compile an empty file, one that includes packbuf.h, and (-O0, -O2) one with
# the implementation. Medians of ROUNDS rounds; the files take turns, so that the machine's moods meet all of them.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
rounds=${ROUNDS:-21}
: >"$folder/empty.c"
echo '#include "packbuf.h"' >"$folder/include.c"
printf '#define PACKBUF_IMPLEMENTATION\n#include "packbuf.h"\n' >"$folder/implement.c"

once() { # COMPILER FILE [FLAGS...]: milliseconds into $folder/COMPILER-NAME
    local compiler=$1 name=$2 start end
    shift 2
    start=$(date +%s%N)
    "$compiler" -std=c11 -I. "$@" -c -o "$folder/out.o" "$folder/${name%-*}.c"
    end=$(date +%s%N)
    echo $(((end - start) / 1000)) >>"$folder/$compiler-$name"
}
median() { sort -n "$1" | awk '{ all[NR] = $1 } END { printf "%.1f", all[int((NR + 1) / 2)] / 1000 }'; }

for compiler in gcc clang; do
    command -v "$compiler" >/dev/null || continue
    for ((round = 0; round < rounds; round++)); do
        once $compiler empty
        once $compiler include
        if [ $((round % 7)) = 0 ]; then
            once $compiler implement-O0 -O0
            once $compiler implement-O2 -O2
        fi
    done
    echo "$compiler: empty file $(median "$folder/$compiler-empty") ms, with packbuf.h $(median "$folder/$compiler-include") ms," \
        "implementation -O0 $(median "$folder/$compiler-implement-O0") ms, -O2 $(median "$folder/$compiler-implement-O2") ms"
done
