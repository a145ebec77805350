#!/usr/bin/env bash
# What README.md shows is true: its C example compiles and runs, every command line of its shell blocks that can run here does,
# inspect prints what it shows, its files exist.
. "$(dirname "$0")/tap.sh"
root=$PWD
PATH=$root/build:$PATH

block() { # LANGUAGE NUMBER: the text of that fenced block
    awk -v want="$1" -v number="$2" '$0 == "```" want { n++; take = n == number; next } $0 == "```" { take = 0 } take' README.md
}

c_example() {
    block c 1 >"$tmp/example.c"
    # shellcheck disable=SC2086
    ${CC:-gcc} -std=c11 -Wall -Wextra -Werror -I. -o "$tmp/example" "$tmp/example.c" || return
    "$tmp/example" | tee "$tmp/printed"
    grep -q '{"reward":1.0,"text":"Hello"}' "$tmp/printed"
}

command_lines() ( # those of the block of the command, on the sample, in order
    cp examples/sample/rows.jsonl "$tmp/rows.jsonl"
    cd "$tmp" || return
    (cd "$root" && block sh 3) | grep '^packbuf' | sed 's/ *#.*//' >lines
    [ "$(wc -l <lines)" -ge 7 ] && bash -eu lines && packbuf pack back.jsonl -o again.pbuf && cmp batch.pbuf again.pbuf
)

store_lines() ( # those that move a batch, with a store and a port of their own; a server takes a moment
    local status=0 port=$((20000 + $$ % 20000))
    cd "$tmp" && packbuf pack rows.jsonl -o batch.pbuf || return
    (cd "$root" && block sh 2) | sed "s/ *#.*//; s/shm:rollouts/shm:readme-$$/g; s/:7700/:$port/; s/&\$/\& sleep 1/" >lines
    [ "$(wc -l <lines)" -ge 6 ] && bash -eu lines && cmp batch.pbuf copy.pbuf || status=1
    [ ! -e "/dev/shm/packbuf.readme-$$" ] || { echo 'the store is still there'; rm "/dev/shm/packbuf.readme-$$"; status=1; }
    return $status
)

inspected() { # what the command prints of the dense sample
    build/packbuf pack examples/sample/*.npy -o "$tmp/dense.pbuf" || return
    { echo '$ packbuf inspect dense.pbuf'; build/packbuf inspect "$tmp/dense.pbuf"; } >"$tmp/inspected"
    block text 1 | diff - "$tmp/inspected"
}

named_files() {
    local file
    for file in $(grep -oE '\]\([a-zA-Z0-9_./-]+\)' README.md | tr -d '])(') packbuf.h spec/packbuf.md spec/reader.py tests/requirements.md; do
        [ -e "$file" ] || { echo "README.md names $file, which is not there"; return 1; }
    done
}

tap_run "the C example compiles and prints what it says" c_example
tap_run "the command lines run" command_lines
tap_run "a batch is put, served and got" store_lines
tap_run "what inspect prints" inspected
tap_run "the files exist" named_files
tap_done
