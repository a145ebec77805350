#!/usr/bin/env bash
# Runs a script in a small emulated machine that has what this one lacks: network namespaces with netem, and verbs over
# software RoCE. What the script prints (TAP) is printed here while it runs; the exit status is the script's.
# usage: run.sh FILE... SCRIPT: the programs and files it needs, and last the script, which begins with `. /guest/lib.sh`.
# Environment: GUEST_SECONDS (600), GUEST_MEMORY (1024 MiB), GUEST_ARGS (NAME=VALUE..., in the script's environment).
# Emulated (TCG), because /dev/kvm does not say whether an ordinary kernel runs on it; some 20 x slower than the host.
# May use: fetch.sh, image.sh, qemu-system-x86_64. Must not know: what is tested.
set -u
here=$(cd "$(dirname "$0")" && pwd)
script=${*: -1}
files=("${@:1:$#-1}")

for need in qemu-system-x86_64 apt-get dpkg; do
    command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 0; }
done
[ "$(uname -m)" = x86_64 ] || { echo '1..0 # SKIP the guest runs programs of x86_64'; exit 0; }

tmp=$(mktemp -d) || exit 1
machine=
trap 'kill $machine 2>/dev/null; rm -rf "$tmp"' EXIT
(flock 9 && "$here/fetch.sh") 9>"$here/../../build/guest.lock" || { echo 'Bail out! the packages are not to be had'; exit 1; }
"$here/image.sh" "$tmp/image" "$script" "${files[@]}" || { echo 'Bail out! no image'; exit 1; }
kernel=$(echo "$here"/../../build/guest/tree/boot/vmlinuz-*)

boot() { # status: whether the guest came up in 30 s
    : >"$tmp/kernel" && : >"$tmp/out"
    timeout -k 5 "${GUEST_SECONDS:-600}" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu Nehalem -smp 2 \
        -m "${GUEST_MEMORY:-1024}" -nodefaults -no-user-config -display none -no-reboot -nic none \
        -serial "file:$tmp/kernel" -serial "file:$tmp/out" -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
        -kernel "$kernel" -initrd "$tmp/image" \
        -append "console=ttyS0 quiet loglevel=4 panic=-1 ${GUEST_ARGS-}" </dev/null 2>"$tmp/qemu" &
    machine=$!
    for _ in $(seq 150); do
        grep -aq '^GUEST_UP' "$tmp/out" && return 0
        kill -0 $machine 2>/dev/null || break
        sleep 0.2
    done
    kill $machine 2>/dev/null
    wait $machine
    return 1
}

# one boot of some hundreds never said a word: nothing has run by then, so another boot hides no failure
for try in 1 2 3; do
    boot && break
    echo "# boot $try: no sign of life in 30 s"
    [ $try -lt 3 ] || { sed 's/^/# /' "$tmp/qemu"; tail -n 20 "$tmp/kernel" | sed 's/^/# /'; echo 'Bail out! no boot'; exit 1; }
done
tail -n +1 -s 0.2 -f --pid=$machine "$tmp/out" | sed -u 's/\r$//; /^GUEST_/d'
wait $machine
code=$?
machine=
said=$(tr -d '\r' <"$tmp/out" | sed -n 's/^GUEST_EXIT=//p')
if [ -z "$said" ] || [ $code != $((33 + 2 * said)) ]; then
    echo "# the guest did not end as it should: it said '$said', qemu exited with $code" >&2
    { cat "$tmp/qemu"; tail -n 30 "$tmp/kernel"; } | tr -d '\r' | sed 's/^/# /' >&2
    exit 1
fi
# prove shows nothing of a failure but what is said here
[ "$said" = 0 ] || tr -d '\r' <"$tmp/out" | grep -a -A 4 'not ok' | head -n 40 >&2
exit "$said"
