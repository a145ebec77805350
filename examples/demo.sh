#!/bin/sh
# The main job on real rollouts: rows and dense columns into packed buffers, a look inside, one field, and back without a difference.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
packbuf=$root/build/packbuf
sample=$root/examples/sample
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
say() { printf '\n$ packbuf %s\n' "$*"; }

say pack rows.jsonl -o rows.pbuf
"$packbuf" pack "$sample/rows.jsonl" -o "$work/rows.pbuf"
say inspect rows.pbuf
"$packbuf" inspect "$work/rows.pbuf" >"$work/tree"
head -n 24 "$work/tree"
printf '... %s lines in all\n' "$(wc -l <"$work/tree")"
say verify rows.pbuf
"$packbuf" verify "$work/rows.pbuf"
say cat rows.pbuf --field meta.step --rows 0:5
"$packbuf" cat "$work/rows.pbuf" --field meta.step --rows 0:5
"$packbuf" unpack "$work/rows.pbuf" -o "$work/rows.jsonl"
"$packbuf" pack "$work/rows.jsonl" -o "$work/again.pbuf"
"$packbuf" diff "$work/rows.pbuf" "$work/again.pbuf"
cmp "$work/rows.pbuf" "$work/again.pbuf"
printf '\nrows -> packed buffer -> rows -> packed buffer: the same bytes\n'

say pack '*.npy' -o dense.pbuf
"$packbuf" pack "$sample"/*.npy -o "$work/dense.pbuf"
"$packbuf" inspect "$work/dense.pbuf"
"$packbuf" verify "$work/dense.pbuf"
"$packbuf" unpack "$work/dense.pbuf" -d "$work/dense"
for file in "$sample"/*.npy; do cmp "$file" "$work/dense/$(basename "$file")"; done
printf '\n.npy -> packed buffer -> .npy: the same bytes\n'
