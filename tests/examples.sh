#!/usr/bin/env bash
# Each examples/*.c compiles on its own with warnings as errors and runs to exit 0 in an empty folder; so does the demo.
. "$(dirname "$0")/tap.sh"
root=$PWD

example() {
    local name
    name=$(basename "$1" .c)
    mkdir "$tmp/$name"
    # shellcheck disable=SC2086
    ${CC:-gcc} -std=c11 $warnings -O1 -I. -o "$tmp/$name/program" "$1" -pthread -lm || return
    (cd "$tmp/$name" && ./program)
}

demo() { # from any folder
    cd "$tmp" && "$root/examples/demo.sh"
}

for file in examples/*.c; do
    [ ! -e "$file" ] || tap_run "$file" example "$file"
done
[ ! -e examples/demo.sh ] || tap_run examples/demo.sh demo
tap_done
