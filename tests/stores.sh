#!/usr/bin/env bash
# tests/store_contract.c on the stores that need something beside them: shm (a name, a secret) and tcp (a server of its own, which is
# stopped, killed and started again), and tests/store_batches.c on tcp. `local` runs among the C tests.
. "$(dirname "$0")/tap.sh"
export PACKBUF_SECRET=hush STORE_SERVER_PID_FILE=$tmp/pid STORE_RESTART=$tmp/restart
flags="-std=c11 -O1 -g1 -I. ${STORE_FLAGS:-}"

build() {
    # shellcheck disable=SC2086
    ${CC:-gcc} $flags -DPACKBUF_IMPLEMENTATION -c -o "$tmp/packbuf.o" -x c tests/library.h &&
        ${CC:-gcc} $flags -o "$tmp/contract" tests/store_contract.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/batches" tests/store_batches.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/serve" tests/double/serve.c "$tmp/packbuf.o" -pthread -lm
}

serve() { # URI: starts a server, whose URI goes to $tmp/uri and whose process to $tmp/pid; it ends with this script
    : >"$tmp/uri"
    "$tmp/serve" "$1" <"$tmp/stay" >"$tmp/uri" 2>>"$tmp/serve.log" &
    echo $! >"$tmp/pid"
    for _ in $(seq 100); do [ ! -s "$tmp/uri" ] || return 0; sleep 0.05; done
    cat "$tmp/serve.log"
    return 1
}

on_tcp() {
    serve tcp://127.0.0.1:0 || return
    printf '#!/usr/bin/env bash\nkill -9 $(cat %s)\nsleep 0.2\nexec 9<%s\n%s %s <&9 >>%s 2>&1 &\necho $! >%s\n' \
        "$tmp/pid" "$tmp/stay" "$tmp/serve" "$(cat "$tmp/uri")" "$tmp/serve.log" "$tmp/pid" >"$tmp/restart"
    chmod +x "$tmp/restart"
    "$tmp/contract" "$(cat "$tmp/uri")" || { cat "$tmp/serve.log"; return 1; }
}

batches_on_tcp() {
    "$tmp/batches" "$(cat "$tmp/uri")" || { cat "$tmp/serve.log"; return 1; }
}

on_shm() {
    local name=contract.$$ status=0
    rm -f "/dev/shm/packbuf.$name"
    "$tmp/contract" "shm:$name" || status=$?
    rm -f "/dev/shm/packbuf.$name"
    return $status
}

mkfifo "$tmp/stay"
exec 8<>"$tmp/stay" # so that a server that reads it does not end before we do
tap_run 'compiles' build
tap_run 'shm: keeps the contract' on_shm
tap_run 'tcp: keeps the contract' on_tcp
tap_run 'tcp: whole batches' batches_on_tcp
kill "$(cat "$tmp/pid")" 2>/dev/null
tap_done
