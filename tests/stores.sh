#!/usr/bin/env bash
# tests/store_contract.c on the stores that need something beside them: shm (a name, a secret) and tcp (a server of its own, which is
# stopped, killed and started again). `local` runs among the C tests. And on both: the ledger, with a consumer in a process of its own, and
# a few rounds of `make kills`.
. "$(dirname "$0")/tap.sh"
export PACKBUF_SECRET=hush STORE_SERVER_PID_FILE=$tmp/pid STORE_RESTART=$tmp/restart
flags="-std=c11 -O1 -g1 -I. ${STORE_FLAGS:-}"

build() {
    # shellcheck disable=SC2086
    ${CC:-gcc} $flags -DPACKBUF_IMPLEMENTATION -c -o "$tmp/packbuf.o" -x c tests/library.h &&
        ${CC:-gcc} $flags -o "$tmp/contract" tests/store_contract.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/ledger" tests/store_ledger.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/kills" tests/kills.c "$tmp/packbuf.o" -pthread -lm &&
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

on_shm() { # PROGRAM
    local name=contract.$$ status=0
    rm -f "/dev/shm/packbuf.$name"
    "$1" "shm:$name" || status=$?
    rm -f "/dev/shm/packbuf.$name"
    return $status
}

ledger_on_tcp() { "$tmp/ledger" "$(cat "$tmp/uri")" || { cat "$tmp/serve.log"; return 1; }; }

mkfifo "$tmp/stay"
exec 8<>"$tmp/stay" # so that a server that reads it does not end before we do
tap_run 'compiles' build
tap_run 'shm: keeps the contract' on_shm "$tmp/contract"
tap_run 'shm: a ledger, and one of another process' on_shm "$tmp/ledger"
tap_run 'tcp: keeps the contract' on_tcp
tap_run 'tcp: a ledger, and one of another process' ledger_on_tcp
tap_run 'shm: 100 killed and stopped at random' "$tmp/kills" shm: 100
tap_run 'tcp: 20 killed and stopped at random' "$tmp/kills" tcp://127.0.0.1:0 20
kill "$(cat "$tmp/pid")" 2>/dev/null
tap_done
