#!/usr/bin/env bash
# tests/store_contract.c on the stores that need something beside them: shm (a name, a secret), tcp (a server of its own, which is
# stopped, killed and started again), verbs (the same, and a double of libibverbs: real verbs are for tests/guest) and mooncake (a
# double of its library, whose master all processes share); tests/store_batches.c on tcp; the ledger, with a consumer in a process of its
# own, on shm and tcp; and a few rounds of `make kills`. `local` runs among the C tests.
. "$(dirname "$0")/tap.sh"
export PACKBUF_SECRET=hush STORE_SERVER_PID_FILE=$tmp/pid STORE_RESTART=$tmp/restart
flags="-std=c11 -O1 -g1 -I. ${STORE_FLAGS:-}"

build() {
    # shellcheck disable=SC2086
    ${CC:-gcc} $flags -DPACKBUF_IMPLEMENTATION -c -o "$tmp/packbuf.o" -x c tests/library.h &&
        ${CC:-gcc} $flags -o "$tmp/contract" tests/store_contract.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/ledger" tests/store_ledger.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/kills" tests/kills.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/batches" tests/store_batches.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/serve" tests/double/serve.c "$tmp/packbuf.o" -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/rollout" examples/rollout.c -pthread -lm &&
        ${CC:-gcc} $flags -o "$tmp/verbs" tests/store_verbs.c -pthread -lm -ldl &&
        ${CC:-gcc} $flags -fPIC -shared -fvisibility=hidden -Wl,-soname,libibverbs.so.1 -Wl,--version-script=tests/double/ibverbs.map \
            -o "$tmp/libibverbs.so.1" tests/double/ibverbs.c -pthread &&
        ${CC:-gcc} -std=c11 -O1 -I. -shared -fPIC -fvisibility=hidden -o "$tmp/libmooncake_store.so" tests/double/mooncake.c -pthread
}

serve() { # URI: starts a server, whose URI goes to $tmp/uri and whose process to $tmp/pid; it ends with this script
    : >"$tmp/uri"
    "$tmp/serve" "$1" <"$tmp/stay" >"$tmp/uri" 2>>"$tmp/serve.log" &
    echo $! >"$tmp/pid"
    for _ in $(seq 100); do [ ! -s "$tmp/uri" ] || return 0; sleep 0.05; done
    cat "$tmp/serve.log"
    return 1
}

restarts() { # writes what kills the server and starts it again
    printf '#!/usr/bin/env bash\nkill -9 $(cat %s)\nsleep 0.2\nexec 9<%s\n%s %s <&9 >>%s 2>&1 &\necho $! >%s\n' \
        "$tmp/pid" "$tmp/stay" "$tmp/serve" "$(cat "$tmp/uri")" "$tmp/serve.log" "$tmp/pid" >"$tmp/restart"
    chmod +x "$tmp/restart"
}

on_tcp() {
    serve tcp://127.0.0.1:0 && restarts || return
    "$tmp/contract" "$(cat "$tmp/uri")" || { cat "$tmp/serve.log"; return 1; }
    kill "$(cat "$tmp/pid")"
}

on_a_server() { # PROGRAM [SCHEME]
    local status=0
    serve "${2:-tcp}://127.0.0.1:0" || return
    "$1" "$(cat "$tmp/uri")" || { cat "$tmp/serve.log"; status=1; }
    kill "$(cat "$tmp/pid")"
    return $status
}

on_verbs() {
    local status=0
    serve tcp://127.0.0.1:0 || return
    STORE_TCP_ONLY=verbs://$(sed 's,tcp://,,' "$tmp/uri")
    local without=$(cat "$tmp/pid")
    export STORE_TCP_ONLY LD_LIBRARY_PATH=$tmp IBVERBS_DOUBLE=$tmp/ibverbs
    serve verbs://127.0.0.1:0 && restarts && "$tmp/contract" "$(cat "$tmp/uri")" || { cat "$tmp/serve.log"; status=1; }
    kill "$without" "$(cat "$tmp/pid")"
    return $status
}

with_double() { LD_LIBRARY_PATH=$tmp IBVERBS_DOUBLE=$tmp/ibverbs "$tmp/verbs"; }
killed_on_verbs() { LD_LIBRARY_PATH=$tmp IBVERBS_DOUBLE=$tmp/ibverbs "$tmp/kills" verbs://127.0.0.1:0 20; }
rollout_on_verbs() { (export LD_LIBRARY_PATH=$tmp IBVERBS_DOUBLE=$tmp/ibverbs; on_a_server "$tmp/rollout" verbs); }
before_shm() {
    local name=verbs.$$ status=0
    STORE_BEHIND=shm:$name with_double || status=$?
    rm -f "/dev/shm/packbuf.$name"
    return $status
}
without_device() { LD_LIBRARY_PATH=$tmp IBVERBS_DOUBLE_DEVICES=0 "$tmp/verbs"; }

on_shm() { # PROGRAM
    local name=contract.$$ status=0
    rm -f "/dev/shm/packbuf.$name"
    "$1" "shm:$name" || status=$?
    rm -f "/dev/shm/packbuf.$name"
    return $status
}

on_mooncake() { # PROGRAM. Leases of the engine last longer than a call of C55 and no longer than needed: removals of C64 wait for them
    local master=/dev/shm/packbuf-double.$$ status=0
    MOONCAKE_STORE_LIBRARY="$tmp/libmooncake_store.so" DOUBLE_MASTER=$master DOUBLE_ROOM=$((64 << 20)) DOUBLE_LEASE_MS=500 \
        STORE_STOP="touch $master.stop" STORE_CONTINUE="rm $master.stop" \
        STORE_RESTART="touch $master.away; sleep 0.4; rm $master.away" "$1" 'mooncake://localhost:50051?segment=0' || status=$?
    rm -f "$master" "$master.stop" "$master.away"
    return $status
}

mkfifo "$tmp/stay"
exec 8<>"$tmp/stay" # so that a server that reads it does not end before we do
tap_run 'compiles' build
tap_run 'shm: keeps the contract' on_shm "$tmp/contract"
tap_run 'shm: a ledger, and one of another process' on_shm "$tmp/ledger"
tap_run 'tcp: keeps the contract' on_tcp
tap_run 'tcp: a ledger, and one of another process' on_a_server "$tmp/ledger"
tap_run 'shm: 100 killed and stopped at random' "$tmp/kills" shm: 100
tap_run 'tcp: 20 killed and stopped at random' "$tmp/kills" tcp://127.0.0.1:0 20
tap_run 'tcp: whole batches' on_a_server "$tmp/batches"
tap_run 'verbs: keeps the contract, by a double of libibverbs' on_verbs
tap_run 'verbs: and what it promises beyond' with_double
tap_run 'verbs: and before shm' before_shm
tap_run 'verbs: says why it is not to be had' without_device
tap_run 'verbs: 20 killed and stopped at random' killed_on_verbs
tap_run 'mooncake: keeps the contract' on_mooncake "$tmp/contract"
tap_run 'examples/rollout.c: tcp' on_a_server "$tmp/rollout"
tap_run 'examples/rollout.c: verbs' rollout_on_verbs
tap_run 'examples/rollout.c: mooncake' on_mooncake "$tmp/rollout"
kill "$(cat "$tmp/pid")" 2>/dev/null
tap_done
